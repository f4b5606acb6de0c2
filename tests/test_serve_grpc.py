"""gRPC: the same bits, statuses and streams; messages of any client."""

import asyncio
import contextlib
import queue
import time

import grpc
import numpy as np
import pytest
import serving
from test_serve_rest import random_x, same
from tritonclient import grpc as triton
from tritonclient.grpc import aio as triton_aio
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

from fastrnn.serve import Service, grpc_server
from fastrnn.serve.grpc_messages import CLASSES, MESSAGES

models, served, server = serving.fixtures(
    "--max-chunk-steps=5000", "--max-body-bytes=8000000", "--max-sessions=40", "--max-batch-steps=10"
)


@pytest.fixture
def client(server):
    with triton.InferenceServerClient(server.grpc) as client:
        yield client


@pytest.fixture
def channel(server):
    with grpc.insecure_channel(server.grpc) as channel:
        yield channel


def input_of(name, array):
    tensor = triton.InferInput(name, array.shape, {"f": "FP32", "i": f"INT{array.itemsize * 8}"}[array.dtype.kind])
    tensor.set_data_from_numpy(array)
    return tensor


def call(channel, method, data):
    return channel.unary_unary(f"/inference.GRPCInferenceService/{method}")(data, timeout=20)


def message_of(x, model="tones", raw=True, **fields):
    message = service_pb2.ModelInferRequest(model_name=model, **fields)
    message.inputs.add(name="x", datatype="FP32", shape=x.shape)
    if raw:
        message.raw_input_contents.append(x.tobytes())
    else:
        message.inputs[0].contents.fp32_contents.extend(x.ravel().tolist())
    return message


def test_messages_are_those_of_the_protocol():
    """The same names, numbers, types and labels as the classes that a client was generated with."""

    def describe(descriptor):
        fields = [
            (
                f.name,
                f.number,
                f.type,
                f.is_repeated,
                f.message_type and describe(f.message_type),
                f.containing_oneof is None,
            )
            for f in descriptor.fields
        ]
        return descriptor.full_name, fields

    assert len(CLASSES) == len([name for name in MESSAGES if "." not in name]) == 15
    for name, kind in CLASSES.items():
        assert describe(kind.DESCRIPTOR) == describe(service_pb2.DESCRIPTOR.message_types_by_name[name]), name


def test_health_and_metadata(client):
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("speech") and client.is_model_ready("speech", "1")
    metadata = client.get_server_metadata(as_json=True)
    assert metadata["name"] == "fastrnn" and {"binary_tensor_data", "sequence"} <= set(metadata["extensions"])
    found = client.get_model_metadata("both", as_json=True)
    assert found["inputs"][0] == {"name": "x", "datatype": "FP32", "shape": ["-1", "-1", "4"]}
    assert [tensor["name"] for tensor in found["outputs"]] == ["y", "h", "c"]
    for ask in (client.is_model_ready, client.get_model_metadata):
        for arguments in (("none",), ("speech", "2")):
            with pytest.raises(InferenceServerException) as error:
                ask(*arguments)
            assert error.value.status() == "StatusCode.NOT_FOUND"


@pytest.mark.parametrize("name", ["speech", "tones", "tags", "both", "last", "down"])
def test_whole_sequences(client, served, name):
    x = random_x(name, (4, 30))
    lengths = np.array([30, 7, 0, 16])
    result = client.infer(name, [input_of("x", x), input_of("lengths", lengths)], request_id="mine")
    wanted = served[name](x, lengths=lengths)
    assert same(result.as_numpy("y"), wanted[0] if isinstance(wanted, tuple) else wanted)
    assert result.get_response().id == "mine"


def test_states_and_typed_contents(client, channel, served):
    x = random_x("speech", (3, 12))
    y, (h, c) = served["speech"](x)
    outputs = [triton.InferRequestedOutput(name) for name in ("c", "h", "y")]
    result = client.infer("speech", [input_of("x", x)], outputs=outputs)
    for name, wanted in (("y", y), ("h", h), ("c", c)):
        assert same(result.as_numpy(name), wanted)
    message = message_of(x, "speech", raw=False)
    message.inputs.add(name="lengths", datatype="INT64", shape=[3]).contents.int64_contents.extend([12, 12, 12])
    response = service_pb2.ModelInferResponse.FromString(call(channel, "ModelInfer", message.SerializeToString()))
    assert response.raw_output_contents[0] == y.tobytes() and list(response.outputs[0].shape) == list(y.shape)


def test_sequences_by_both_protocols(client, server, served):
    x = random_x("speech", (1, 60))
    y, _ = served["speech"](x)
    for sequence_id in (12345, "1" * 256):
        first = client.infer("speech", [input_of("x", x[:, :20])], sequence_id=sequence_id, sequence_start=True)
        status, content = server.infer("speech", x[:, 20:35], {"sequence_id": sequence_id})
        assert status == 200
        last = client.infer("speech", [input_of("x", x[:, 35:])], sequence_id=sequence_id, sequence_end=True)
        parts = [first.as_numpy("y"), serving.output(content), last.as_numpy("y")]
        assert same(np.concatenate(parts, axis=1), y)
        with pytest.raises(InferenceServerException, match="not known"):
            client.infer("speech", [input_of("x", x)], sequence_id=sequence_id)


def test_large_ids_are_one_by_any_parameter(channel, server):
    x = random_x("tones", (1, 2))
    message = message_of(x)
    message.parameters["sequence_id"].uint64_param = 2**64 - 1
    message.parameters["sequence_start"].bool_param = True
    call(channel, "ModelInfer", message.SerializeToString())
    assert server.infer("tones", x, {"sequence_id": 2**64 - 1, "sequence_end": True})[0] == 200
    message.parameters["sequence_id"].int64_param = -1
    with pytest.raises(grpc.RpcError) as error:
        call(channel, "ModelInfer", message.SerializeToString())
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def stream(client, requests):
    """Send requests on one stream; returns (result, error) of each."""
    answers = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    for arguments, options in requests:
        client.async_stream_infer(*arguments, **options)
    found = [answers.get(timeout=20) for _ in requests]
    client.stop_stream()
    return found


def test_a_stream_of_sequences(client, served):
    xs = [random_x("speech", (1, 50), seed=seed) for seed in range(6)]
    requests = []
    for first in range(0, 50, 10):
        for number, x in enumerate(xs):
            options = {"sequence_id": number + 1, "sequence_start": first == 0, "sequence_end": first == 40}
            requests.append(
                (("speech", [input_of("x", x[:, first : first + 10])]), {**options, "request_id": f"{number} {first}"})
            )
    found = stream(client, requests)
    assert all(error is None for _, error in found)
    assert [result.get_response().id for result, _ in found] == [options["request_id"] for _, options in requests]
    for number, x in enumerate(xs):
        parts = [result.as_numpy("y") for result, _ in found[number::6]]
        assert same(np.concatenate(parts, axis=1), served["speech"](x)[0])


def test_errors_in_a_stream_leave_it_open(client, channel, served):
    x = random_x("tones", (1, 3))
    good = (("tones", [input_of("x", x)]), {"request_id": "a"})
    bad = (("tones", [input_of("x", x[..., :2].copy())]), {"request_id": "b"})
    found = stream(client, [good, bad, (("none", [input_of("x", x)]), {}), good])
    assert [error is None for _, error in found] == [True, False, False, True]
    assert "wanted [B, T, 3]" in found[1][1].message()
    assert same(found[3][0].as_numpy("y"), served["tones"](x)[0])
    messages = [
        message_of(x, id="1").SerializeToString(),
        b"\xff\xff",
        message_of(x, "none", id="3").SerializeToString(),
    ]
    answers = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")(iter(messages), timeout=20)
    answers = [service_pb2.ModelStreamInferResponse.FromString(data) for data in answers]
    assert [answer.infer_response.id for answer in answers] == ["1", "", "3"]
    assert [bool(answer.error_message) for answer in answers] == [False, True, True]


def test_a_message_that_is_too_large_leaves_the_stream_open(channel):
    x = random_x("tones", (1, 3))
    large = message_of(random_x("tones", (1, 700_000)), id="large")
    messages = [message_of(x, id="a"), large, message_of(x, id="b")]
    infer = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
    answers = infer((message.SerializeToString() for message in messages), timeout=20)
    found = [service_pb2.ModelStreamInferResponse.FromString(data) for data in answers]
    assert [answer.infer_response.id for answer in found] == ["a", "large", "b"]
    assert [bool(answer.error_message) for answer in found] == [False, True, False]
    assert "and not up to 8000000" in found[1].error_message


def test_memory_of_calls_is_counted_until_they_end(monkeypatch):
    """Of a call that is answered, of a stream that its client cancels, and of answers that nobody takes."""
    service = Service({"tones": serving.models()["tones"]})
    message = message_of(random_x("tones", (4, 2000))).SerializeToString()  # y has 512 KB

    async def until_free():
        async with asyncio.timeout(10):
            while service.held_bytes:
                await asyncio.sleep(0.01)

    async def run():
        server = grpc_server.make_server(service)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
            assert len(await infer(message)) > 4 * 2000 * 16 * 4
            await until_free()
            stream = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
            call = stream(iter([message] * 100))
            await call.read()
            assert service.held_bytes
            call.cancel()
            await until_free()
            monkeypatch.setattr(grpc_server, "SEND_SECONDS", 0.2)
            call = stream(iter([message] * 100))
            await call.read()
            assert service.held_bytes
            await until_free()
        await server.stop(0)
        service.stop()

    asyncio.run(run())


def test_the_final_response_is_marked_if_asked_for(client):
    x = random_x("tones", (1, 3))
    found = stream(client, [(("tones", [input_of("x", x)]), {"enable_empty_final_response": True})])
    assert found[0][0].get_response().parameters["triton_final_response"].bool_param


def test_asyncio_client(server, served):
    async def run():
        async with triton_aio.InferenceServerClient(server.grpc) as client:
            xs = [random_x("tones", (2, 40), seed=seed) for seed in range(30)]
            results = await asyncio.gather(*(client.infer("tones", [input_of("x", x)]) for x in xs))

            async def requests():
                for first in (0, 20):
                    chunk = [input_of("x", xs[0][:1, first : first + 20].copy())]
                    yield {"model_name": "tones", "inputs": chunk, "sequence_id": 3, "sequence_start": first == 0}

            parts = []
            async for result, error in client.stream_infer(requests()):
                assert error is None
                parts.append(result.as_numpy("y"))
            return xs, [result.as_numpy("y") for result in results], parts

    xs, ys, parts = asyncio.run(run())
    for x, y in zip(xs, ys, strict=True):
        assert same(y, served["tones"](x)[0])
    assert same(np.concatenate(parts, axis=1), served["tones"](xs[0][:1])[0])


def code_of(channel, message):
    data = message if isinstance(message, bytes) else message.SerializeToString()
    with pytest.raises(grpc.RpcError) as error:
        call(channel, "ModelInfer", data)
    return error.value.code().name, dict(error.value.trailing_metadata() or ())


def test_what_is_refused(channel):
    x = random_x("tones", (1, 3))
    assert code_of(channel, b"\xff\xff\xff")[0] == "INVALID_ARGUMENT"
    assert code_of(channel, b"")[0] == "NOT_FOUND"
    assert code_of(channel, message_of(x, "none"))[0] == "NOT_FOUND"
    assert code_of(channel, message_of(x, model_version="2"))[0] == "NOT_FOUND"
    assert code_of(channel, message_of(random_x("tones", (1, 5001))))[0] == "RESOURCE_EXHAUSTED"
    assert code_of(channel, message_of(random_x("tones", (300, 1))))[0] == "RESOURCE_EXHAUSTED"
    assert code_of(channel, message_of(random_x("tones", (1, 700_000))))[0] == "RESOURCE_EXHAUSTED"
    invalid = [message_of(x) for _ in range(11)]
    invalid[0].raw_input_contents.append(b"")
    invalid[1].inputs[0].contents.fp32_contents.append(1)
    invalid[2].inputs[0].datatype = "FP16"
    invalid[3].inputs[0].shape[0] = -1
    invalid[4].outputs.add(name="c")
    invalid[5].parameters["sequence_start"].bool_param = True
    invalid[6].parameters["sequence_id"].string_param = ""
    invalid[7].parameters["timeout"].string_param = "1"
    del invalid[8].raw_input_contents[:]
    invalid[9].inputs[0].name = "z"
    for name in ("y", "h", "y"):
        invalid[10].outputs.add(name=name)
    for index, message in enumerate(invalid):
        assert code_of(channel, message)[0] == "INVALID_ARGUMENT", index
    wrong = message_of(x, raw=False)
    wrong.inputs[0].contents.int_contents.append(3)
    assert code_of(channel, wrong)[0] == "INVALID_ARGUMENT"


def test_no_more_sessions_than_places(channel, server):
    x = random_x("wide", (1, 1))
    for number in range(1, 42):
        message = message_of(x, "wide")
        message.parameters["sequence_id"].int64_param = number
        message.parameters["sequence_start"].bool_param = True
        if number <= 40:
            call(channel, "ModelInfer", message.SerializeToString())
    code, trailing = code_of(channel, message)
    assert code == "RESOURCE_EXHAUSTED" and int(trailing["retry-after"]) >= 1
    status, headers, _ = server.request(
        "/v2/models/wide/infer",
        {
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1, 64], "data": [0] * 64}],
            "parameters": {"sequence_id": "one more", "sequence_start": True},
        },
    )
    assert status == 429 and int(headers["retry-after"]) >= 1
    assert server.metrics()['fastrnn_sessions_refused_total{model="wide"}'] == 2
    message.parameters["sequence_id"].int64_param = 1
    message.parameters["sequence_end"].bool_param = True
    call(channel, "ModelInfer", message.SerializeToString())
    message.parameters["sequence_id"].int64_param = 41
    call(channel, "ModelInfer", message.SerializeToString())


def test_deadlines(client, server, channel):
    """Late work is refused, and leaves its session as it was."""
    x = random_x("wide", (1, 3000))
    short = random_x("wide", (1, 2))
    client.infer("wide", [input_of("x", short)], sequence_id=1, sequence_start=True)
    with pytest.raises(InferenceServerException) as error:
        client.infer("wide", [input_of("x", x)], sequence_id=1, timeout=2000)
    assert error.value.status() == "StatusCode.DEADLINE_EXCEEDED"
    with pytest.raises(InferenceServerException) as error:
        client.infer("wide", [input_of("x", x)], sequence_id=1, client_timeout=0.005)
    assert error.value.status() == "StatusCode.DEADLINE_EXCEEDED"
    body = {"sequence_id": 1, "timeout": 2000}
    status, content = server.infer("wide", x[:, :800], body)
    assert status == 504 and "deadline" in content["error"]
    y = client.infer("wide", [input_of("x", short)], sequence_id=1).as_numpy("y")
    wanted = serving.models()["wide"](np.concatenate([short, short], axis=1))[0]
    assert same(y, wanted[:, 2:])


def test_cancelled_calls_are_forgotten(channel, server, served):
    x = random_x("wide", (1, 5000))
    short = random_x("wide", (1, 2))
    message = message_of(short, "wide")
    message.parameters["sequence_id"].int64_param = 1
    message.parameters["sequence_start"].bool_param = True
    call(channel, "ModelInfer", message.SerializeToString())
    before = server.metrics()
    long = message_of(x, "wide")
    long.parameters["sequence_id"].int64_param = 1
    infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    for _ in range(5):
        future = infer.future(long.SerializeToString(), timeout=20)
        time.sleep(0.01)
        future.cancel()
    with contextlib.suppress(grpc.RpcError):
        channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")(
            iter([long.SerializeToString()] * 5), timeout=0.02
        ).next()
    message.parameters["sequence_start"].bool_param = False
    response = service_pb2.ModelInferResponse.FromString(call(channel, "ModelInfer", message.SerializeToString()))
    wanted = served["wide"](np.concatenate([short, short], axis=1))[0][:, 2:]
    assert response.raw_output_contents[0] == wanted.tobytes()
    label = 'fastrnn_requests_total{model="wide",outcome="cancelled",protocol="grpc"}'
    assert server.metrics()[label] - before.get(label, 0) >= 1  # others may have been cancelled on their way
