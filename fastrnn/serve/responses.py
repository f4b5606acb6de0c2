"""Responses that REST and the handshake of WebSockets share."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from .refusals import Refusal


def error_response(refusal: Refusal, headers: Mapping[str, str] | None = None) -> Response:
    """A refusal as every request of HTTP is told it."""
    headers = dict(headers or {})
    if refusal.retry_after is not None:
        headers["retry-after"] = str(refusal.retry_after)
    if refusal.kind.status == 401:
        headers["www-authenticate"] = "Bearer"
    return json_response({"error": str(refusal)}, refusal.kind.status, headers)


def json_response(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(json.dumps(content), status, headers, "application/json")
