"""The web server: uvicorn, with limits on connections that uvicorn does not have."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode, Frame, Opcode

from .options import Options

MOST_HEAD_BYTES = 1 << 16  # of a request line and headers, or of chunk sizes and trailers between and after bodies
HEAD_SECONDS = 20  # in which they must have arrived: on a new connection, and once they have begun
SEND_SECONDS = 60  # in which a client must have taken some of an answer that waits for it


class Protocol(HttpToolsProtocol):
    """A connection. Without these limits whoever reaches the port could fill the memory, or take all connections.

    Attributes
    ----------
    head_bytes : bytes received since the headers, a part of a body, or the request ended
    head_timer : closes the connection if they do not end; None while none have begun
    send_timer : closes the connection if its client takes nothing of an answer; None while little is left to take
    """

    head_bytes = 0
    head_timer: asyncio.TimerHandle | None = None
    send_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_head()
        self._stop_send_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self.head_bytes += len(data)
        super().data_received(data)  # which calls the methods below
        if self.transport.is_closing():
            return
        if self.head_bytes > MOST_HEAD_BYTES:
            self.send_400_response(f"the request line and headers have more than {MOST_HEAD_BYTES} bytes")
        elif self.head_bytes and self.head_timer is None:
            self._await_head()

    def on_headers_complete(self) -> None:
        self._end_head()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._end_head()
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._end_head()
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what never reaches the application, as JSON like every refusal."""
        body = json.dumps({"error": msg}).encode()
        head = b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close"
        self.transport.write(b"%b\r\n\r\n%b" % (head % len(body), body))
        self.transport.close()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._await_client()

    def resume_writing(self) -> None:
        self._stop_send_timer()
        super().resume_writing()

    def _await_client(self) -> None:
        unsent = self.transport.get_write_buffer_size()
        self.send_timer = self.loop.call_later(SEND_SECONDS, self._check_progress, unsent)

    def _check_progress(self, unsent: int) -> None:
        if self.transport.get_write_buffer_size() < unsent:
            self._await_client()
        else:
            self.transport.abort()

    def _stop_send_timer(self) -> None:
        if self.send_timer is not None:
            self.send_timer.cancel()
            self.send_timer = None

    def _await_head(self) -> None:
        self.head_timer = self.loop.call_later(HEAD_SECONDS, self._head_is_late)

    def _head_is_late(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._await_head()  # the request before it is still running
        else:
            self.transport.close()

    def _end_head(self) -> None:
        self.head_bytes = 0
        if self.head_timer is not None:
            self.head_timer.cancel()
            self.head_timer = None


class StreamProtocol(WebSocketsSansIOProtocol):
    """A WebSocket. A message that is too large to be read gets an error message too, before the connection closes."""

    def handle_parser_exception(self) -> None:
        if self.close_sent:
            return  # what still arrives is discarded
        assert self.conn.close_sent is not None
        code = self.conn.close_sent.code
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": self.conn.close_sent.reason})
        if code == CloseCode.MESSAGE_TOO_BIG:
            error = {"type": "error", "message": f"the message has more than {self.config.ws_max_size} bytes"}
            self.transport.write(Frame(Opcode.TEXT, json.dumps(error).encode()).serialize(mask=False))
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        # Closed at once, while the message is still arriving, the connection would be reset and the error lost.
        self.transport.write_eof()
        self.close_timer = self.loop.call_later(self.close_timeout, self.transport.close)


class Server(uvicorn.Server):
    """uvicorn's server; signals are handled by who runs it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def make_server(app: Any, options: Options, close_seconds: int) -> Server:
    """A server of this ASGI application that listens nowhere yet; close_seconds: for connections at its end."""
    config = uvicorn.Config(
        app,
        http=Protocol,
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nothing here depends on the client's address
        lifespan="on",
        ws=StreamProtocol,
        ws_max_size=options.max_message_bytes,
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=close_seconds,
    )
    return Server(config)
