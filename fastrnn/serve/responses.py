"""Responses that REST and the handshake of WebSockets share."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from starlette.responses import Response
from starlette.types import Send

from .refusals import Refusal

JSON = (b"content-type", b"application/json")

WHOLE_BYTES = 1 << 16  # of a body that is sent at once; a larger one as fast as the client takes it


class Reply(NamedTuple):
    """A response as ASGI sends it. Starlette's would take as long as a refusal may take altogether."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: list[bytes]  # its consecutive parts

    async def send(self, send: Send) -> None:
        """Send it; when this has returned, little of it is still in memory."""
        size = sum(map(len, self.body))
        headers = [*self.headers, (b"content-length", b"%d" % size)]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        if size <= WHOLE_BYTES:
            await send({"type": "http.response.body", "body": b"".join(self.body)})
            return
        for part in self.body:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b""})  # waits until the client has taken what is before it


def error_reply(refusal: Refusal) -> Reply:
    """The response to a refused HTTP request: its status and the reason."""
    headers = [JSON]
    if refusal.retry_after is not None:
        headers.append((b"retry-after", b"%d" % refusal.retry_after))
    if refusal.kind.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if refusal.kind.status == 405:
        headers.append((b"allow", b"POST"))
    return Reply(refusal.kind.status, headers, [json.dumps({"error": str(refusal)}).encode()])


def error_response(refusal: Refusal) -> Response:
    """The same, for Starlette."""
    reply = error_reply(refusal)
    response = Response(b"".join(reply.body), reply.status)
    response.raw_headers.extend(reply.headers)
    return response


def json_response(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(json.dumps(content), status, headers, "application/json")
