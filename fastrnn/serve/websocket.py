"""The WebSocket protocol: one session a connection, binary frames of steps in and out, control messages as JSON."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import logging
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from ..stream_pool import Session
from .access import SUBPROTOCOL, token_of_header, token_of_subprotocols
from .batcher import Channel, Job, join
from .inference import check_ids
from .metrics import NO_MODEL
from .refusals import Refusal
from .responses import error_response
from .service import Entry, Service

log = logging.getLogger("fastrnn.serve")

PROTOCOL = "websocket"  # the label of metrics

MOST_ANSWERS = 16  # of a connection that wait to be sent, or `max_body_bytes`; then the server stops reading it

Answer = Callable[[Any], "bytes | dict[str, Any]"]  # what is sent for a job's result


class StreamEndpoint:
    """``/v2/models/NAME/stream``."""

    def __init__(self, service: Service) -> None:
        self.service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        socket = WebSocket(scope, receive, send)
        name = NO_MODEL
        try:
            service = self.service
            header = socket.headers.get("authorization")
            token = token_of_subprotocols(scope["subprotocols"]) if header is None else token_of_header(header)
            service.access.tenant(token)
            service.access.check_origin(socket.headers.get("origin"), socket.headers.get("host"))
            if "model" not in socket.path_params:
                raise Refusal("not_found", "there is no such path: it is /v2/models/NAME/stream")
            entry = service.entry(socket.path_params["model"], socket.path_params.get("version", ""))
            name = entry.served.name
            service.check_ready()
            if entry.served.pool is None:
                raise Refusal("invalid", f"model {name} needs whole sequences, so it has no streams")
            connection = Connection(service, entry, receive, send)
        except Refusal as refusal:
            self.service.metrics.count_request(name, PROTOCOL, refusal.kind.outcome)
            await socket.send_denial_response(error_response(refusal))
            return
        try:
            await socket.accept(SUBPROTOCOL if SUBPROTOCOL in scope["subprotocols"] else None)
            await connection.run()
        finally:
            connection.close()


class Connection:
    """One session. Its requests are answered in the order in which they came."""

    def __init__(self, service: Service, entry: Entry, receive: Receive, send: Send) -> None:
        self.service, self.entry, self._receive, self._send = service, entry, receive, send
        self.served = served = entry.served
        self.channel: Channel = entry.sessions.open("the session", False, self._expire)
        assert served.pool is not None
        self.channel.session = served.pool.open()
        self.channel.on_open(self.channel)
        self._answers: deque[tuple[Job, Answer]] = deque()
        self._unsent = 0  # bytes of them, about, with those that are still computed
        self._changed = asyncio.Event()  # an answer is there, or the end
        self._fewer = asyncio.Event()  # answers
        self._end: tuple[dict[str, Any] | None, int] | None = None  # what is sent after the answers; how to close
        widest = max(served.input_size * served.x_dtype.itemsize, served.output_size * 4)
        self.max_steps = max(min(service.options.max_chunk_steps, service.options.max_body_bytes // widest), 1)
        self._draining = self._sending = False
        service.on_drain.add(self._on_drain)

    def close(self) -> None:
        """Forget the session."""
        self.service.on_drain.discard(self._on_drain)
        for job in list(self.channel.jobs):
            self.entry.batcher.refuse(job, "cancelled", "the client is gone")
        for job, _ in self._answers:
            self._count("cancelled" if job.action is None else None)
        self._answers.clear()
        self.entry.sessions.remove(self.channel)

    async def run(self) -> None:
        """Serve the client until it goes, or one of its messages is refused."""
        served = self.served
        greeting = {
            "type": "session",
            "model": served.name,
            "dtype": served.x_dtype.name,
            "input_size": served.input_size,
            "output_size": served.output_size,
            "max_chunk_steps": self.max_steps,
        }
        await self._send_answer(greeting)
        reader = asyncio.ensure_future(self._read())
        writer = asyncio.ensure_future(self._write())
        try:
            await asyncio.wait({reader, writer}, return_when=asyncio.FIRST_COMPLETED)
            if self._end is not None and not writer.done():
                await writer
        finally:
            for task in (reader, writer):
                task.cancel()
        await asyncio.wait({reader, writer})
        for task in (reader, writer):
            failure = None if task.cancelled() else task.exception()
            if isinstance(failure, Exception) and not _is_disconnect(failure):
                log.error("connection failed", exc_info=failure, extra={"fields": {"model": served.name}})

    # Messages from the client

    async def _read(self) -> None:
        while self._end is None:
            message = await self._receive()
            if message["type"] == "websocket.disconnect":
                return
            try:
                data = message.get("bytes")
                job, answer = self._text(message["text"]) if data is None else self._frame(data)
            except Refusal as refusal:
                if message.get("bytes") is not None:
                    self._count(refusal.kind.outcome)
                self._finish({"type": "error", "message": str(refusal)}, refusal.kind.close)
                return
            size, most = self._answer_bytes(job), self.service.options.max_body_bytes
            while len(self._answers) >= MOST_ANSWERS or (self._answers and self._unsent + size > most):
                self._fewer.clear()
                await self._fewer.wait()
            if self.entry.batcher.full:
                await self.entry.batcher.room()
            if self._end is None and not self._draining:
                await self._submit(job, answer)

    async def _submit(self, job: Job, answer: Answer) -> None:
        self.entry.batcher.submit(job)
        self._answers.append((job, answer))
        self._unsent += self._answer_bytes(job)
        if len(self._answers) == 1 and not self._sending:
            await asyncio.sleep(0)  # in which a small batch runs; waking the writer would take longer than that
            if not self._sending:
                await self._send_answers()
        if not job.future.done() or self._answers or self._end is not None:
            job.future.add_done_callback(self._on_change)

    def _frame(self, data: bytes) -> tuple[Job, Answer]:
        """A job of a binary frame."""
        served = self.served
        self._check_size("frame", len(data))
        step = served.input_size * served.x_dtype.itemsize
        if len(data) % step:
            raise Refusal("invalid", f"the frame has {len(data)} bytes, wanted a multiple of {step}: steps of x")
        steps = len(data) // step
        if steps > self.max_steps:
            raise Refusal("too_large", f"the frame has {steps} steps, more than {self.max_steps}")
        if steps % served.stride:
            raise Refusal("invalid", f"the frame has {steps} steps, wanted a multiple of {served.stride}")
        chunk: NDArray[Any] = np.frombuffer(data, served.x_dtype.newbyteorder("<"))
        chunk = check_ids(served, chunk, "the frame") if served.num_ids else chunk.reshape(steps, served.input_size)
        job = Job([chunk], channel=self.channel)
        return job, lambda _: _bytes_of(job.rows[0].parts)

    def _check_size(self, name: str, size: int) -> None:
        most = self.service.options.max_body_bytes
        if size > most:
            raise Refusal("too_large", f"the {name} has {size} bytes, more than {most}")

    def _text(self, text: str) -> tuple[Job, Answer]:
        """A job of a control message."""
        self._check_size("message", len(text.encode()))
        try:
            message = json.loads(text)
            kind = message["type"]
        except (ValueError, RecursionError, KeyError, TypeError):
            raise Refusal("invalid", "the message is not a JSON object with a type") from None
        if kind == "reset":
            return self._action(Session.reset), lambda _: {"type": "reset"}
        if kind == "snapshot":
            return self._action(Session.snapshot), _snapshot_message
        if kind == "restore":
            try:
                snapshot = base64.b64decode(message["data"], validate=True)
            except (KeyError, TypeError, ValueError, binascii.Error):
                raise Refusal("invalid", "restore has no data in base64") from None
            return self._action(lambda session: session.restore(snapshot)), lambda _: {"type": "restored"}
        raise Refusal("invalid", f"the message's type is {str(kind)[:100]!r}, wanted reset, snapshot or restore")

    def _action(self, action: Callable[[Session[Any]], Any]) -> Job:
        return Job([], channel=self.channel, action=action)

    # Answers

    async def _write(self) -> None:
        while True:
            if not self._sending:
                await self._send_answers()
                if self._answers and self._answers[0][0].future.done():
                    job, _ = self._answers.popleft()
                    refusal = job.refusal
                    assert refusal is not None
                    self._count(refusal.kind.outcome if job.action is None else None)
                    await self._close_with({"type": "error", "message": str(refusal)}, refusal.kind.close)
                    return
                if not self._answers and self._end is not None:
                    await self._close_with(*self._end)
                    return
            self._changed.clear()
            await self._changed.wait()

    async def _send_answers(self) -> None:
        """Send the answers that are there, in their order, up to a refusal. One task does so at a time."""
        self._sending = True
        try:
            while self._answers and (future := self._answers[0][0].future).done() and future.exception() is None:
                job, answer = self._answers[0]
                await self._send_answer(answer(future.result()))
                self._answers.popleft()
                self._unsent -= self._answer_bytes(job)
                self._fewer.set()
                self._count("ok" if job.action is None else None)
        finally:
            self._sending = False

    def _answer_bytes(self, job: Job) -> int:
        return sum(row.steps for row in job.rows) * self.served.output_size * 4

    def _on_change(self, future: asyncio.Future[Any]) -> None:
        self._changed.set()

    def _count(self, outcome: str | None) -> None:
        """Count a frame; None: it is a message, which is not counted."""
        if outcome is not None:
            self.service.metrics.count_request(self.served.name, PROTOCOL, outcome)

    def _finish(self, message: dict[str, Any] | None, code: int) -> None:
        """Close after the answers of what came before."""
        if self._end is None:
            self._end = message, code
            self._changed.set()

    async def _close_with(self, message: dict[str, Any] | None, code: int) -> None:
        if message is not None:
            await self._send_answer(message)
        self._end = message, code
        await self._send({"type": "websocket.close", "code": code})

    async def _send_answer(self, content: bytes | dict[str, Any]) -> None:
        if isinstance(content, bytes):
            await self._send({"type": "websocket.send", "bytes": content})
        else:
            await self._send({"type": "websocket.send", "text": json.dumps(content)})

    def _expire(self) -> None:
        """The session was not used for too long."""
        idle = f"the session has expired: it was not used for {self.service.options.idle_seconds:g} s"
        self._finish({"type": "error", "message": idle}, 1008)
        self.entry.sessions.remove(self.channel)

    def _on_drain(self) -> None:
        """The server stops: give the client its state."""
        if self._end is None and not self._draining:
            self._draining = True
            job = self._action(Session.snapshot)
            self.entry.batcher.submit(job)
            self._answers.append((job, self._last_snapshot))
            job.future.add_done_callback(self._on_change)

    def _last_snapshot(self, snapshot: bytes) -> dict[str, Any]:
        self._finish(None, 1001)
        return _snapshot_message(snapshot)


def _snapshot_message(snapshot: bytes) -> dict[str, Any]:
    return {"type": "snapshot", "data": base64.b64encode(snapshot).decode()}


def _bytes_of(parts: list[NDArray[Any]]) -> bytes:
    return join(parts).astype("<f4", copy=False).tobytes()


def _is_disconnect(failure: Exception) -> bool:
    """Whether the client went away while something was sent to it."""
    return isinstance(failure, OSError | RuntimeError) or type(failure).__name__ in (
        "WebSocketDisconnect",
        "ClientDisconnected",
    )
