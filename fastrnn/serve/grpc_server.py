"""gRPC: the Open Inference Protocol, and Triton's ModelStreamInfer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from .access import token_of_header
from .grpc_messages import CLASSES, SERVICE
from .inference import DATATYPES, Request, check_datatype, check_shape, check_size, count_of
from .metrics import NO_MODEL
from .models import VERSION
from .refusals import Refusal, shutting_down
from .service import Pending, Service

log = logging.getLogger("fastrnn.serve")

PROTOCOL = "grpc"  # the label of metrics

#: The member of InferTensorContents for each datatype that is read.
CONTENTS = {"FP32": "fp32_contents", "INT32": "int_contents", "INT64": "int64_contents"}

MOST_ANSWERS = 64  # of one ModelStreamInfer that wait to be sent; then the server stops reading it


def make_server(service: Service) -> grpc.aio.Server:
    """A server of this service that listens nowhere yet. It reads messages itself, to refuse malformed ones."""
    most = service.options.max_body_bytes
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", most + (64 << 10)),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),
        ]
    )
    protocol = _Protocol(service)
    unary = {
        "ServerLive": protocol.server_live,
        "ServerReady": protocol.server_ready,
        "ServerMetadata": protocol.answer("ServerMetadataRequest", protocol.server_metadata),
        "ModelReady": protocol.answer("ModelReadyRequest", protocol.model_ready),
        "ModelMetadata": protocol.answer("ModelMetadataRequest", protocol.model_metadata),
        "ModelInfer": protocol.infer,
    }
    handlers: dict[str, Any] = {name: grpc.unary_unary_rpc_method_handler(call) for name, call in unary.items()}
    handlers["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(protocol.stream_infer)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    return server


class _Protocol:
    def __init__(self, service: Service) -> None:
        self.service = service

    def _tenant(self, context: Any) -> str:
        for key, value in context.invocation_metadata() or ():
            if key == "authorization" and isinstance(value, str):
                return self.service.access.tenant(token_of_header(value))
        return self.service.access.tenant(None)

    def answer(self, request_name: str, make: Callable[[Any], Any]) -> Callable[[bytes, Any], Awaitable[bytes]]:
        """A call that needs a token and is answered at once."""

        async def call(data: bytes, context: Any) -> bytes:
            try:
                self._tenant(context)
                response: bytes = make(_read(request_name, data)).SerializeToString()
            except Refusal as refusal:
                await _abort(context, refusal)
            return response

        return call

    async def server_live(self, data: bytes, context: Any) -> bytes:
        return _bytes("ServerLiveResponse", live=True)

    async def server_ready(self, data: bytes, context: Any) -> bytes:
        return _bytes("ServerReadyResponse", ready=self.service.ready)

    def server_metadata(self, request: Any) -> Any:
        return CLASSES["ServerMetadataResponse"](**self.service.server_metadata())

    def model_ready(self, request: Any) -> Any:
        self.service.entry(request.name, request.version)
        return CLASSES["ModelReadyResponse"](ready=self.service.ready)

    def model_metadata(self, request: Any) -> Any:
        entry = self.service.entry(request.name, request.version)
        return CLASSES["ModelMetadataResponse"](**self.service.model_metadata(entry))

    async def infer(self, data: bytes, context: Any) -> bytes:
        call = _Call(self.service)
        outcome = "cancelled"
        try:
            remaining = context.time_remaining()
            now = asyncio.get_running_loop().time()
            call.submit(data, self._tenant(context), None if remaining is None else now + remaining)
            response: bytes = (await call.response()).SerializeToString()
            outcome = "ok"
            return response
        except Refusal as refusal:
            outcome = refusal.kind.outcome
            await _abort(context, refusal)
            raise
        except asyncio.CancelledError:
            call.cancel()
            raise
        except Exception:
            log.exception("request failed", extra={"fields": {"model": call.model, "request_id": call.id}})
            outcome = "failed"
            await _abort(context, Refusal("failed", "the server failed; its log says why"))
            raise
        finally:
            call.count(outcome)

    async def stream_infer(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        """Requests run as they come, and are answered in their order."""
        try:
            tenant = self._tenant(context)
        except Refusal as refusal:
            self.service.metrics.count_request(NO_MODEL, PROTOCOL, refusal.kind.outcome)
            await _abort(context, refusal)
        calls: asyncio.Queue[_Call | None] = asyncio.Queue()  # None: there will be no more
        room = asyncio.Semaphore(MOST_ANSWERS)
        reader = asyncio.ensure_future(self._read(requests, tenant, calls, room))

        def end(*_: object) -> None:
            calls.put_nowait(None)

        reader.add_done_callback(end)
        self.service.on_drain.add(end)
        call: _Call | None = None
        try:
            while (call := await calls.get()) is not None:
                yield await call.stream_response()
                call = None
                room.release()
            if not reader.done():
                await _abort(context, shutting_down())
            await reader
        finally:
            self.service.on_drain.discard(end)
            reader.cancel()
            while call is not None or not calls.empty():
                if call is not None:
                    call.cancel()
                    call.count("cancelled" if call.refusal is None else call.refusal.kind.outcome)
                call = None if calls.empty() else calls.get_nowait()

    async def _read(
        self, requests: AsyncIterator[bytes], tenant: str, calls: asyncio.Queue[_Call | None], room: asyncio.Semaphore
    ) -> None:
        await room.acquire()
        async for data in requests:
            call = _Call(self.service)
            try:
                call.submit(data, tenant, None)
            except Refusal as refusal:
                call.refusal = refusal
            calls.put_nowait(call)
            await room.acquire()


class _Call:
    """One request to infer."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.model, self.id = NO_MODEL, ""
        self.refusal: Refusal | None = None
        self._final = False
        self._pending: Pending | None = None
        self._held = 0
        self._counted = False

    def submit(self, data: bytes, tenant: str, deadline: float | None) -> None:
        message = _read("ModelInferRequest", data)
        self.id = message.id
        entry = self.service.entry(message.model_name, message.model_version)
        self.model = entry.served.name
        self.service.check_ready()
        entry.batcher.check_room()
        self.service.hold_body(len(data))
        self._held = len(data)
        self._final = (
            message.parameters["triton_enable_empty_final_response"].bool_param
            if ("triton_enable_empty_final_response" in message.parameters)
            else False
        )
        self._pending = self.service.submit(entry, _request(message), tenant, deadline)

    async def response(self) -> Any:
        """The ModelInferResponse; raises Refusal."""
        if self.refusal is not None:
            raise self.refusal
        assert self._pending is not None
        return self._message(await self._pending.results())

    async def stream_response(self) -> bytes:
        """The ModelStreamInferResponse, which may be an error."""
        outcome = "ok"
        try:
            response = CLASSES["ModelStreamInferResponse"](infer_response=await self.response())
            if self._final:
                response.infer_response.parameters["triton_final_response"].bool_param = True
        except Refusal as refusal:
            outcome = refusal.kind.outcome
            response = CLASSES["ModelStreamInferResponse"](error_message=str(refusal))
            response.infer_response.id = self.id
        self.count(outcome)
        data: bytes = response.SerializeToString()
        return data

    def cancel(self) -> None:
        if self._pending is not None:
            self._pending.cancel()

    def count(self, outcome: str) -> None:
        """Count the request, once, and let go of its body."""
        if not self._counted:
            self._counted = True
            self.service.release_body(self._held)
            self.service.metrics.count_request(self.model, PROTOCOL, outcome)

    def _message(self, outputs: dict[str, NDArray[Any]]) -> Any:
        message = CLASSES["ModelInferResponse"](model_name=self.model, model_version=VERSION, id=self.id)
        for name, array in outputs.items():
            message.outputs.add(name=name, datatype="FP32", shape=array.shape)
            message.raw_output_contents.append(array.astype("<f4", copy=False).tobytes())
        return message


def _read(name: str, data: bytes) -> Any:
    """A message; Refusal if the bytes are none."""
    try:
        return CLASSES[name].FromString(data)
    except DecodeError:
        raise Refusal("invalid", f"the request is no {name}") from None


def _bytes(name: str, **fields: Any) -> bytes:
    data: bytes = CLASSES[name](**fields).SerializeToString()
    return data


async def _abort(context: Any, refusal: Refusal) -> None:
    """End a call with the refusal's status; raises."""
    trailing = () if refusal.retry_after is None else (("retry-after", str(refusal.retry_after)),)
    await context.abort(grpc.StatusCode[refusal.kind.code], str(refusal), trailing)


def _request(message: Any) -> Request:
    """What a ModelInferRequest asks for."""
    raw = list(message.raw_input_contents)
    if raw and len(raw) != len(message.inputs):
        raise Refusal("invalid", f"there are {len(raw)} raw_input_contents for {len(message.inputs)} inputs")
    inputs = {}
    for index, tensor in enumerate(message.inputs):
        name, datatype = tensor.name, tensor.datatype
        check_datatype(name, datatype)
        if name in inputs:
            raise Refusal("invalid", f"the input {name[:100]!r} is given twice")
        shape = check_shape(name, list(tensor.shape))
        if raw:
            if tensor.HasField("contents"):
                raise Refusal("invalid", f"the input {name[:100]!r} has contents, and there are raw_input_contents")
            check_size(name, datatype, shape, len(raw[index]))
            inputs[name] = datatype, np.frombuffer(raw[index], DATATYPES[datatype]).reshape(shape)
        else:
            inputs[name] = datatype, _array(tensor, shape)
    return Request(
        inputs,
        outputs={tensor.name: True for tensor in message.outputs},
        parameters={name: _value(parameter) for name, parameter in message.parameters.items()},
        id=message.id,
    )


def _array(tensor: Any, shape: tuple[int, ...]) -> NDArray[Any]:
    """A tensor of typed contents."""
    wanted = CONTENTS[tensor.datatype]
    for field, _ in tensor.contents.ListFields():
        if field.name != wanted:
            raise Refusal("invalid", f"the input {tensor.name[:100]!r} has {field.name}, wanted {wanted}")
    numbers = np.array(getattr(tensor.contents, wanted), check_datatype(tensor.name, tensor.datatype))
    if len(numbers) != count_of(shape):
        raise Refusal(
            "invalid", f"{tensor.name[:100]} has {len(numbers)} numbers, wanted {count_of(shape)} for {list(shape)}"
        )
    return numbers.reshape(shape)


def _value(parameter: Any) -> Any:
    choice = parameter.WhichOneof("parameter_choice")
    return None if choice is None else getattr(parameter, choice)
