"""Which replica has a session: Ray Serve's consistent hashing, and notice of its changes."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from ray.serve.experimental.consistent_hash_router import ConsistentHashRouter

#: The header by which Ray Serve's proxies route, in the form in which they compare it.
HEADER = os.environ.get("RAY_SERVE_SESSION_ID_HEADER_KEY", "x-session-id").lower()

#: The session id by which the current request was routed.
session_id: ContextVar[str | None] = ContextVar("session_id", default=None)

_listeners: list[Callable[[SessionRouter], None]] = []


class SessionRouter(ConsistentHashRouter):  # type: ignore[misc]
    """Ray's router as it is; it also tells its process when the set of replicas has changed.

    A replica learns here, and nowhere else, that sessions are no longer its own, and that it is about to be stopped:
    Ray calls its code only when all its requests have ended, and the connection of a WebSocket is a request.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._lock = threading.Lock()
        super().__init__(*arguments, **options)

    def update_replicas(self, replicas: list[Any]) -> None:
        with self._lock:
            super().update_replicas(replicas)
        # Ray Serve sends this class by value, with its own copy of the module's globals.
        from fastrnn.ray import routing

        for listener in list(routing._listeners):
            listener(self)

    def owner(self, session: str) -> str | None:
        """The replica that has a session, as `replica_tag` of its context; None if there is none. Any thread."""
        replica = self._replica_of(session)
        return None if replica is None else replica.unique_id

    def actor(self, session: str) -> str | None:
        """The same replica as the name of its actor."""
        replica = self._replica_of(session)
        return None if replica is None else replica.to_full_id_str()

    def _replica_of(self, session: str) -> Any:
        with self._lock:
            ranked = self._lookup_ranked_replicas(session)
        return ranked[0] if ranked else None

    def members(self) -> set[str]:
        """All replicas that get requests. Any thread."""
        with self._lock:
            return {replica.unique_id for replica in self._replica_set_snapshot}


def listen(listener: Callable[[SessionRouter], None]) -> Callable[[], None]:
    """Call `listener` after each change, in the router's thread; returns how to stop that."""
    _listeners.append(listener)
    return lambda: _listeners.remove(listener)


def session_id_of(scope: Any) -> str | None:
    """The session id of a request of ASGI."""
    wanted = HEADER.replace("-", "_")
    found = [
        value.decode("utf-8", "replace")  # as Ray's proxies, which refuse what is not UTF-8
        for name, value in scope.get("headers", ())
        if name.decode("latin-1").lower().replace("-", "_") == wanted
    ]
    return found[-1] if found and found[-1] else None


class SessionHeader:
    """An ASGI application that notes the session id of each request."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        session_id.set(session_id_of(scope))
        await self.app(scope, receive, send)
