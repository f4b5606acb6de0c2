"""REST: the Open Inference Protocol with Triton's binary tensors and sequences, metrics, and the page."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import logging
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import Message, Receive, Scope, Send

from .access import token_of_header
from .inference import DATATYPES, Prepared, Request, array_of_numbers, check_datatype, check_shape, check_size, count_of
from .metrics import NO_MODEL
from .models import VERSION
from .options import Options
from .refusals import Refusal
from .responses import JSON, Reply, error_reply, error_response, json_response
from .service import Entry, Pending, Service
from .websocket import StreamEndpoint

log = logging.getLogger("fastrnn.serve")

PAGE = Path(__file__).with_name("page.html")
PAGE_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "connect-src 'self' ws: wss:; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
}

JSON_LENGTH = b"inference-header-content-length"
OPEN_PATHS = re.compile(r"/?|/v2/health/.*", re.DOTALL)  # that need no token
BODY_SECONDS = 60  # in which a body must have arrived
#: The JSON of requests with binary tensors repeats, and reading it takes longer than a short computation.
MOST_KEPT_HEADS, MOST_KEPT_BYTES = 128, 2048

PIECE = 4096  # numbers that are written as JSON before the event loop's other tasks have their turn


class Application(Starlette):
    """The application. Inference requests bypass Starlette's routing, which takes longer than a small computation."""

    service: Service
    infer: InferEndpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].endswith("/infer"):
            parts = _path(scope).split("/")  # "", v2, models, NAME, infer
            if parts[:3] == ["", "v2", "models"] and len(parts) == 5:
                await self.infer(scope, receive, send, parts[3])
                return
            if parts[:3] == ["", "v2", "models"] and len(parts) == 7 and parts[4] == "versions":
                await self.infer(scope, receive, send, parts[3], parts[5])
                return
        await super().__call__(scope, receive, send)


def _path(scope: Scope) -> str:
    """The path below where the application is mounted."""
    path: str = scope["path"].removeprefix(scope.get("root_path", ""))
    return path


def application(models: Mapping[str, Any], options: Options | None = None) -> Application:
    """The ASGI application that serves models: REST, WebSocket, metrics and the page.

    Parameters
    ----------
    models : layers and Sequentials by name; see `Service`
    options : limits and access; None: the defaults

    Returns
    -------
    Application
        A Starlette application; its lifespan restores and saves sessions, and its ``service`` is the Service.

    Raises
    ------
    TypeError, ValueError
        A model cannot be served.
    """
    return application_of(Service(models, options))


def application_of(service: Service) -> Application:
    """The ASGI application of a service, which other protocols may share."""

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        service.restore()
        try:
            yield
        finally:
            await service.drain()
            service.stop()

    rest = Rest(service)
    stream = StreamEndpoint(service)
    routes: list[BaseRoute] = [
        Route("/", rest.page),
        Route("/metrics", rest.answer(rest.metrics)),
        Route("/v2/health/live", rest.live),
        Route("/v2/health/ready", rest.ready),
        Route("/v2", rest.answer(rest.server)),
    ]
    for path in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
        routes += [
            Route(path, rest.answer(rest.model)),
            Route(f"{path}/ready", rest.answer(rest.model_ready)),
            WebSocketRoute(f"{path}/stream", stream),
        ]
    routes.append(WebSocketRoute("/{path:path}", stream))  # which refuses it
    handlers: Any = {HTTPException: rest.http_error, Exception: rest.crash}
    app = Application(routes=routes, lifespan=lifespan, exception_handlers=handlers)
    app.router.redirect_slashes = False
    app.service, app.infer = service, InferEndpoint(service)
    return app


class Rest:
    """Everything that is not inference."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self._page = PAGE.read_bytes()

    def answer(self, make: Callable[[Any], Response]) -> Callable[[Any], Awaitable[Response]]:
        """An endpoint that needs a token."""

        async def endpoint(request: Any) -> Response:
            try:
                self.service.access.tenant(token_of_header(request.headers.get("authorization")))
                return make(request)
            except Refusal as refusal:
                return error_response(refusal)

        return endpoint

    async def page(self, request: Any) -> Response:
        return Response(self._page, media_type="text/html; charset=utf-8", headers=PAGE_HEADERS)

    async def live(self, request: Any) -> Response:
        return json_response({"live": True})

    async def ready(self, request: Any) -> Response:
        return json_response({"ready": self.service.ready}, 200 if self.service.ready else 503)

    def metrics(self, request: Any) -> Response:
        return Response(self.service.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    def server(self, request: Any) -> Response:
        return json_response(self.service.server_metadata())

    def model(self, request: Any) -> Response:
        return json_response(self.service.model_metadata(self._entry(request)))

    def model_ready(self, request: Any) -> Response:
        self._entry(request)
        ready = self.service.ready
        return json_response({"name": request.path_params["model"], "ready": ready}, 200 if ready else 503)

    def _entry(self, request: Any) -> Entry:
        return self.service.entry(request.path_params["model"], request.path_params.get("version", ""))

    async def http_error(self, request: Any, error: HTTPException) -> Response:
        """Refuse an unknown path or method; without a valid token the answer is 401, as for every other path."""
        try:
            if not OPEN_PATHS.fullmatch(_path(request.scope)):
                self.service.access.tenant(token_of_header(request.headers.get("authorization")))
        except Refusal as refusal:
            return error_response(refusal)
        return json_response({"error": error.detail}, error.status_code, error.headers)

    async def crash(self, request: Any, error: Exception) -> Response:
        return json_response({"error": "the server failed; its log says why"}, 500)


class InferEndpoint:
    """POST .../infer."""

    def __init__(self, service: Service) -> None:
        self.service, self.timer = service, BodyTimer()
        self.read_kept = functools.lru_cache(MOST_KEPT_HEADS)(read_head)

    async def __call__(self, scope: Scope, receive: Receive, send: Send, model: str, version: str = "") -> None:
        exchange = Exchange(self, dict(scope["headers"]), receive)
        reply: Reply | None = None
        try:
            try:
                reply = await exchange.run(scope["method"], model, version)
                outcome = "ok"
            except Refusal as refusal:
                outcome = refusal.kind.outcome
                reply = error_reply(refusal)
            except ClientDisconnect:
                outcome = "cancelled"
            except Exception:
                log.exception("request failed", extra={"fields": {"request_id": exchange.id}})
                outcome = "failed"
                reply = error_reply(Refusal("failed", "the server failed; its log says why"))
            finally:
                exchange.release_body()
            self.service.metrics.count_request(exchange.model, "http", outcome)
            if log.isEnabledFor(logging.DEBUG):
                fields = {"request_id": exchange.id, "model": exchange.model, "outcome": outcome}
                log.debug("request", extra={"fields": fields})
            if reply is not None and not exchange.gone:
                reply.headers.append((b"x-request-id", exchange.id.encode("latin-1")))
                if self.service.draining:
                    reply.headers.append((b"connection", b"close"))
                await reply.send(send)
        finally:
            exchange.release_answer()


class BodyTimer:
    """Refuses requests whose bodies take too long. They share a timer, as one for each costs more than reading them."""

    def __init__(self) -> None:
        self._ends: dict[asyncio.Task[Any], float] = {}  # of those that read, the first one first
        self._late: set[asyncio.Task[Any]] = set()
        self._due = 0.0  # when the timer ends

    def __enter__(self) -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        now = loop.time()
        self._ends[task] = now + BODY_SECONDS
        if self._due <= now:
            self._arm(now + BODY_SECONDS)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        task = asyncio.current_task()
        assert task is not None
        del self._ends[task]
        if task in self._late:
            self._late.remove(task)
            if task.uncancel() == 0 and kind is asyncio.CancelledError:
                raise Refusal("too_slow", f"the body has not arrived within {BODY_SECONDS} s") from None

    def _arm(self, due: float) -> None:
        self._due = due
        asyncio.get_running_loop().call_at(due, self._cancel)

    def _cancel(self) -> None:
        self._due = 0.0
        for task, end in self._ends.items():
            if end > asyncio.get_running_loop().time():
                self._arm(end)
                break
            if task not in self._late:  # there may be two timers for a moment
                self._late.add(task)
                task.cancel()


class Exchange:
    """One request and what it holds.

    Attributes
    ----------
    id : the client's X-Request-ID, or one of our own
    model : the label of metrics
    gone : whether the client has gone away
    """

    def __init__(self, endpoint: InferEndpoint, headers: dict[bytes, bytes], receive: Receive) -> None:
        self.endpoint, self.service, self.headers, self.receive = endpoint, endpoint.service, headers, receive
        self.model, self.gone = NO_MODEL, False
        self._held = 0  # bytes of the body
        self._pending: Pending | None = None
        given = headers.get(b"x-request-id", b"").decode("latin-1")
        self.id = given if 0 < len(given) <= 128 and given.isprintable() else os.urandom(16).hex()

    async def run(self, method: str, model: str, version: str) -> Reply:
        tenant = self.service.access.tenant(token_of_header(self._header(b"authorization")))
        entry = self.service.entry(model, version)
        self.model = entry.served.name
        if method != "POST":
            raise Refusal("method", f"the method is {method}, wanted POST")
        self.service.check_ready()
        entry.batcher.check_room()
        request = parse(await self._body(), self._header(JSON_LENGTH), self.endpoint.read_kept)
        pending = self._pending = self.service.submit(entry, request, tenant)
        await asyncio.sleep(0)  # in which a small batch runs
        outputs = await (pending.results() if pending.done else self._wait(pending))
        return await answer(self.model, request.id, pending.prepared.outputs, outputs)

    def release_body(self) -> None:
        self.service.release(self._held)

    def release_answer(self) -> None:
        if self._pending is not None:
            self._pending.release()

    def _header(self, name: bytes) -> str | None:
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")

    async def _body(self) -> bytes:
        if self._header(b"content-encoding") not in (None, "identity"):
            raise Refusal("invalid", f"the content-encoding is {self._header(b'content-encoding')}, wanted none")
        length = self._header(b"content-length")
        if length is not None:
            if not (length.isascii() and length.isdigit()):
                raise Refusal("invalid", f"the content-length is {length[:50]!r}")
            self._hold(int(length))
        parts: list[bytes] = []
        size = 0
        with self.endpoint.timer:
            while True:
                message = await self.receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                part = message.get("body", b"")
                size += len(part)
                if size > self._held:
                    self._hold(size - self._held)
                parts.append(part)
                if not message.get("more_body", False):
                    return parts[0] if len(parts) == 1 else b"".join(parts)

    def _hold(self, size: int) -> None:
        self.service.hold_body(size, self._held)
        self._held += size

    async def _wait(self, pending: Pending) -> dict[str, NDArray[Any]]:
        """The results, unless the client goes away first."""

        def stop(watcher: asyncio.Future[Message]) -> None:
            if not watcher.cancelled() and watcher.exception() is None:
                self.gone = True
                pending.cancel()

        watcher = asyncio.ensure_future(self.receive())
        watcher.add_done_callback(stop)
        try:
            return await pending.results()
        finally:
            watcher.remove_done_callback(stop)
            watcher.cancel()


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number in JSON; send it as binary data")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


class Tensor(NamedTuple):
    """An input as a request's JSON has it; size: of its binary data, or None."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    size: int | None
    data: Any


class Head(NamedTuple):
    """A request's JSON, checked. Other requests may have the same one."""

    inputs: tuple[Tensor, ...]
    outputs: dict[str, bool]
    parameters: dict[str, Any]
    id: str
    binary: bool
    prepared: dict[str, Prepared]  # by model, when a request has been


def parse(body: bytes, json_length: str | None, read_kept: Callable[[bytes], Head]) -> Request:
    """A request's body: JSON, and after its first `json_length` bytes the data of binary tensors.

    read_kept : `read_head`, which remembers what it has read

    Raises
    ------
    Refusal
    """
    at = len(body)
    if json_length is None:
        head = read_head(body)
    else:
        if not json_length.isascii() or not json_length.isdigit() or len(json_length) > 15 or int(json_length) > at:
            raise Refusal("invalid", f"Inference-Header-Content-Length is {json_length[:50]!r} of {at} bytes")
        at = int(json_length)
        head = (read_head if at > MOST_KEPT_BYTES else read_kept)(body[:at])
    inputs: dict[str, tuple[str, NDArray[Any]]] = {}
    for name, datatype, shape, size, data in head.inputs:
        if size is None:
            inputs[name] = datatype, array_of_numbers(name, datatype, shape, data)
            continue
        if size > len(body) - at:
            raise Refusal(
                "invalid", f"the binary_data_size of {name[:100]!r} is {size}, but {len(body) - at} bytes are left"
            )
        inputs[name] = datatype, np.frombuffer(body, DATATYPES[datatype], count_of(shape), at).reshape(shape)
        at += size
    if at < len(body):
        raise Refusal("invalid", f"{len(body) - at} bytes after the last binary tensor are not of any")
    return Request(inputs, head.outputs, head.parameters, head.id, head.binary, head.prepared)


def read_head(text: bytes) -> Head:
    """Read a request's JSON; Refusal if it is none, or does not describe tensors."""
    try:
        content = _DECODER.decode(str(text, "utf-8"))
    except (ValueError, RecursionError) as error:
        raise Refusal("invalid", f"the request is not JSON: {str(error)[:200]}") from None
    _want(content, dict, "the request")
    parameters = _parameters(content)
    inputs: dict[str, Tensor] = {}
    for tensor in _list(content, "inputs"):
        name = _text(tensor, "name")
        shape = check_shape(name, tensor.get("shape"))
        datatype = _want(tensor.get("datatype"), str, "datatype")
        check_datatype(name, datatype)
        size = _parameters(tensor).get("binary_data_size")
        if name in inputs:
            raise Refusal("invalid", f"the input {name[:100]!r} is given twice")
        if size is not None:
            if "data" in tensor:
                raise Refusal("invalid", f"the input {name[:100]!r} has data and a binary_data_size, wanted one")
            if type(size) is not int:
                raise Refusal("invalid", f"the binary_data_size of {name[:100]!r} is {size!r:.50}, wanted an integer")
            check_size(name, datatype, shape, size)
        inputs[name] = Tensor(name, datatype, shape, size, tensor.get("data"))
    binary = _flag(parameters, "binary_data_output", False)
    outputs = {}
    for tensor in _list(content, "outputs", []):
        name = _text(tensor, "name")
        if name in outputs:
            raise Refusal("invalid", f"the output {name[:100]!r} is given twice")
        outputs[name] = _flag(_parameters(tensor), "binary_data", binary)
    return Head(tuple(inputs.values()), outputs, parameters, _text(content, "id", ""), binary, {})


def _want(value: Any, kind: type[Any], name: str) -> Any:
    if not isinstance(value, kind):
        raise Refusal("invalid", f"{name[:100]} is of type {type(value).__name__}, wanted {kind.__name__}")
    return value


def _list(content: dict[str, Any], name: str, default: Any = None) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = _want(content.get(name, default), list, name)
    for entry in entries:
        _want(entry, dict, f"an entry of {name}")
    return entries


def _text(content: dict[str, Any], name: str, default: Any = None) -> str:
    text: str = _want(content.get(name, default), str, name)
    return text


def _parameters(content: dict[str, Any]) -> dict[str, Any]:
    parameters: dict[str, Any] = _want(content.get("parameters", {}), dict, "parameters")
    return parameters


def _flag(parameters: dict[str, Any], name: str, default: bool) -> bool:
    flag: bool = _want(parameters.get(name, default), bool, name)
    return flag


async def answer(model: str, request_id: str, binary: Mapping[str, bool], outputs: Mapping[str, NDArray[Any]]) -> Reply:
    """The response with these outputs, which JSON can hold where they are not binary."""
    own = f', "id": {json.dumps(request_id)}' if request_id else ""
    text = f'{{"model_name": "{model}", "model_version": "{VERSION}"{own}, "outputs": ['  # that is not in `parts` yet
    parts: list[bytes] = []
    data: list[bytes] = []
    for index, (name, array) in enumerate(outputs.items()):
        comma = ", " if index else ""
        text += f'{comma}{{"name": "{name}", "datatype": "FP32", "shape": {list(array.shape)}'
        if binary[name]:
            data.append(array.astype("<f4", copy=False).tobytes())
            text += f', "parameters": {{"binary_data_size": {len(data[-1])}}}}}'
            continue
        text += ', "data": ['
        numbers = array.ravel()
        for first in range(0, len(numbers), PIECE):
            if first:
                await asyncio.sleep(0)
                text = ", "
            parts.append(f"{text}{json.dumps(numbers[first : first + PIECE].tolist())[1:-1]}".encode())
            text = ""
        text += "]}"
    parts.append(f"{text}]}}".encode())
    if not data:
        return Reply(200, [JSON], parts)
    length = sum(map(len, parts))
    headers = [(b"content-type", b"application/octet-stream"), (JSON_LENGTH, b"%d" % length)]
    return Reply(200, headers, parts + data)
