"""Why a request is not answered, and how each protocol says so."""

from __future__ import annotations

from typing import NamedTuple


class Kind(NamedTuple):
    """A kind of refusal.

    Attributes
    ----------
    outcome : the label of ``fastrnn_requests_total``
    status : of HTTP
    code : the name of gRPC's status code
    close : the code with which a WebSocket is closed
    """

    outcome: str
    status: int
    code: str
    close: int


KINDS = {
    "invalid": Kind("invalid", 400, "INVALID_ARGUMENT", 1008),
    "unauthorized": Kind("unauthorized", 401, "UNAUTHENTICATED", 1008),
    "foreign": Kind("unauthorized", 403, "PERMISSION_DENIED", 1008),
    "not_found": Kind("not_found", 404, "NOT_FOUND", 1008),
    "method": Kind("invalid", 405, "UNIMPLEMENTED", 1008),
    "too_slow": Kind("cancelled", 408, "CANCELLED", 1008),
    "too_large": Kind("refused", 413, "RESOURCE_EXHAUSTED", 1009),
    "too_many": Kind("refused", 429, "RESOURCE_EXHAUSTED", 1008),
    "cancelled": Kind("cancelled", 499, "CANCELLED", 1008),
    "failed": Kind("failed", 500, "INTERNAL", 1011),
    "unavailable": Kind("unavailable", 503, "UNAVAILABLE", 1001),
    "late": Kind("late", 504, "DEADLINE_EXCEEDED", 1008),
}

#: Kinds of refusals after which the same request may be tried again.
TRY_AGAIN = ("too_many", "unavailable")

RETRY_SECONDS = 1  # a queue empties, and a restart takes, about so long


class Refusal(Exception):
    """A request is refused.

    Attributes
    ----------
    kind : of KINDS
    retry_after : whole seconds after which the request may be tried again, or None
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = KINDS[kind]
        self.retry_after = RETRY_SECONDS if kind in TRY_AGAIN else None


def shutting_down() -> Refusal:
    return Refusal("unavailable", "the server is shutting down")
