"""REST: every answer has the bits of the layer called alone, and every refusal its status."""

import asyncio
import json
import socket

import numpy as np
import pytest
import serving
import uvloop
from tritonclient import http as triton
from tritonclient.http import aio as triton_aio
from tritonclient.utils import InferenceServerException

import fastrnn
from fastrnn import serve
from fastrnn.serve import rest

models, served, server = serving.fixtures(
    "--max-chunk-steps=500", "--max-body-bytes=300000", "--max-batch-rows=20", "--max-batch-steps=7"
)


@pytest.fixture
def client(server):
    with triton.InferenceServerClient(server.http) as client:
        yield client


def input_of(name, array, binary=True):
    datatype = {"f": "FP32", "i": f"INT{array.itemsize * 8}"}[array.dtype.kind]
    tensor = triton.InferInput(name, array.shape, datatype)
    tensor.set_data_from_numpy(array, binary_data=binary)
    return tensor


def random_x(name, shape, seed=0):
    rng = np.random.default_rng(seed)
    width = {"speech": 5, "tones": 3, "both": 4, "last": 4, "down": 5, "wide": 64}.get(name)
    return rng.integers(0, 11, shape) if width is None else rng.standard_normal((*shape, width)).astype("f4")


def same(found, wanted):
    return found.dtype == wanted.dtype and found.shape == wanted.shape and found.tobytes() == wanted.tobytes()


def test_the_first_line(server):
    assert server.line.endswith("models speech, tones, tags, both, last, down, wide\n")


def test_health_and_metadata(client, server, served):
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("speech")
    assert client.is_model_ready("speech", "1") and not client.is_model_ready("none")
    metadata = client.get_server_metadata()
    assert metadata["name"] == "fastrnn" and metadata["version"] == fastrnn.__version__
    assert {"binary_tensor_data", "sequence", "sequence(string_id)"} <= set(metadata["extensions"])
    found = client.get_model_metadata("speech", "1")
    assert found["versions"] == ["1"]
    assert found["inputs"][0] == {"name": "x", "datatype": "FP32", "shape": [-1, -1, 5]}
    assert found["outputs"][0] == {"name": "y", "datatype": "FP32", "shape": [-1, -1, 33]}
    assert [tensor["name"] for tensor in found["outputs"]] == ["y", "h", "c"]
    assert [tensor["name"] for tensor in client.get_model_metadata("tones")["outputs"]] == ["y", "h"]
    assert client.get_model_metadata("tags")["inputs"][0] == {"name": "x", "datatype": "INT64", "shape": [-1, -1]}


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
@pytest.mark.parametrize("name", ["speech", "tones", "tags", "both", "last", "down"])
def test_whole_sequences(client, served, name, binary_in, binary_out):
    x = random_x(name, (4, 30))
    lengths = np.array([30, 7, 0, 16])
    inputs = [input_of("x", x, binary_in), input_of("lengths", lengths, binary_in)]
    outputs = [triton.InferRequestedOutput("y", binary_data=binary_out)]
    result = client.infer(name, inputs, outputs=outputs, request_id="a request")
    wanted = served[name](x, lengths=lengths)
    assert same(result.as_numpy("y"), wanted[0] if isinstance(wanted, tuple) else wanted)
    assert result.get_response()["id"] == "a request"
    if binary_in and binary_out:
        assert same(
            client.infer(name, inputs[:1]).as_numpy("y"),
            served[name](x) if name in ("tags", "last", "down") else served[name](x)[0],
        )


@pytest.mark.parametrize("name", ["speech", "tones", "both"])
def test_state(client, served, name):
    x = random_x(name, (3, 20))
    lengths = np.array([4, 20, 0])
    wanted_y, state = served[name](x, lengths=lengths)
    names = ["c", "h", "y"] if isinstance(state, tuple) else ["h"]
    outputs = [triton.InferRequestedOutput(part) for part in names]
    result = client.infer(name, [input_of("x", x), input_of("lengths", lengths)], outputs=outputs)
    assert [tensor["name"] for tensor in result.get_response()["outputs"]] == names
    assert same(result.as_numpy("h"), state[0] if isinstance(state, tuple) else state)
    if isinstance(state, tuple):
        assert same(result.as_numpy("c"), state[1]) and same(result.as_numpy("y"), wanted_y)
    else:
        assert result.as_numpy("y") is None


def test_int32_ids_empty_batches_and_no_steps(client, served):
    x = random_x("tags", (2, 5))
    assert same(client.infer("tags", [input_of("x", x.astype("i4"))]).as_numpy("y"), served["tags"](x))
    for shape in ((0, 4), (3, 0)):
        for name in ("speech", "both", "last"):
            x = random_x(name, shape)
            wanted = served[name](x)
            found = client.infer(name, [input_of("x", x)]).as_numpy("y")
            assert same(found, wanted[0] if isinstance(wanted, tuple) else wanted), (name, shape)


def test_sequences_of_any_chunks(client, served):
    x = random_x("speech", (1, 200))
    y, (h, c) = served["speech"](x)
    others = random_x("speech", (1, 60), seed=1)
    found, other = [], []
    first = 0
    for count in (1, 0, 60, 39, 100):
        outputs = [triton.InferRequestedOutput(name) for name in ("y", "h", "c")]
        result = client.infer(
            "speech",
            [input_of("x", x[:, first : first + count])],
            outputs=outputs,
            sequence_id=2**64 - 1,
            sequence_start=first == 0 and count == 1,
            sequence_end=count == 100,
        )
        found.append(result.as_numpy("y"))
        if first < 60:
            chunk = others[:, 30 * len(other) : 30 * len(other) + 30]
            result_of_other = client.infer(
                "speech", [input_of("x", chunk)], sequence_id=str(2**64 - 1), sequence_start=not other
            )
            other.append(result_of_other.as_numpy("y"))
        first += count
    assert same(np.concatenate(found, axis=1), y)
    assert same(result.as_numpy("h"), h) and same(result.as_numpy("c"), c)
    assert same(np.concatenate(other, axis=1), served["speech"](others[:, : 30 * len(other)])[0])
    with pytest.raises(InferenceServerException, match="not known") as error:
        client.infer("speech", [input_of("x", x)], sequence_id=2**64 - 1)
    assert error.value.status() == "404"
    client.infer("speech", [input_of("x", others[:, :1])], sequence_id=str(2**64 - 1), sequence_end=True)


@pytest.mark.parametrize("name", ["tags", "down"])
def test_sequences_of_models(client, served, name):
    x = random_x(name, (1, 24))
    parts = [
        client.infer(
            name, [input_of("x", x[:, i : i + 8])], sequence_id="é", sequence_start=i == 0, sequence_end=i == 16
        )
        for i in (0, 8, 16)
    ]
    assert same(np.concatenate([part.as_numpy("y") for part in parts], axis=1), served[name](x))


def test_lengths_and_a_new_start_in_a_sequence(client, served):
    x = random_x("tones", (1, 9))
    wanted, _ = served["tones"](x)
    for _ in range(2):  # the second one starts on a live id
        lengths = input_of("lengths", np.array([4]))
        y = client.infer("tones", [input_of("x", x), lengths], sequence_id=5, sequence_start=True).as_numpy("y")
        assert same(y[:, :4], wanted[:, :4]) and not y[:, 4:].any()
        assert same(client.infer("tones", [input_of("x", x[:, 4:])], sequence_id=5).as_numpy("y"), wanted[:, 4:])


def test_many_clients_at_once(server, served):
    """Whole sequences and sequences in chunks, all in each other's batches."""

    async def run():
        async with triton_aio.InferenceServerClient(server.http, conn_limit=64) as client:

            async def one(number):
                x = random_x("speech", (1, 90), seed=number)
                if number % 3 == 0:
                    result = await client.infer("speech", [input_of("x", x, number % 2 == 0)])
                    return x, result.as_numpy("y")
                parts = []
                for first in range(0, 90, 30):
                    chunk = input_of("x", x[:, first : first + 30], number % 2 == 0)
                    options = {"sequence_start": first == 0, "sequence_end": first == 60}
                    result = await client.infer("speech", [chunk], sequence_id=number, **options)
                    parts.append(result.as_numpy("y"))
                return x, np.concatenate(parts, axis=1)

            return await asyncio.gather(*(one(number) for number in range(1, 61)))

    results = asyncio.run(run())
    assert len(results) == 60
    for x, y in results:
        assert same(y, served["speech"](x)[0])


def test_many_rows_share_the_slots(server, served):
    """More rows at once than a batch has: rows wait for a slot with their state."""

    async def run():
        async with triton_aio.InferenceServerClient(server.http, conn_limit=16) as client:
            xs = [random_x("tones", (20, 50), seed=seed) for seed in range(8)]
            results = await asyncio.gather(*(client.infer("tones", [input_of("x", x)]) for x in xs))
            return xs, [result.as_numpy("y") for result in results]

    for x, y in zip(*asyncio.run(run()), strict=True):
        assert same(y, served["tones"](x)[0])


def test_nan_and_infinity_pass_as_binary_alone(client, server, served):
    x = random_x("tones", (1, 4))
    x[0, 2, 1] = np.nan
    wanted, _ = served["tones"](x)
    assert np.isnan(wanted).any()
    assert same(client.infer("tones", [input_of("x", x)], sequence_id=9, sequence_start=True).as_numpy("y"), wanted)
    y = triton.InferRequestedOutput("y", binary_data=False)
    with pytest.raises(InferenceServerException, match="NaN") as error:
        client.infer("tones", [input_of("x", x)], outputs=[y])
    assert error.value.status() == "400"
    # In a sequence the refused request leaves the state as it was.
    good = random_x("tones", (1, 3))
    client.infer("tones", [input_of("x", good)], sequence_id=8, sequence_start=True)
    with pytest.raises(InferenceServerException):
        client.infer("tones", [input_of("x", x)], outputs=[y], sequence_id=8)
    found = client.infer("tones", [input_of("x", good)], sequence_id=8).as_numpy("y")
    assert same(found, served["tones"](np.concatenate([good, good], axis=1))[0][:, 3:])
    for text in ("NaN", "Infinity", "1e39", "-1e999"):
        body = f'{{"inputs": [{{"name": "x", "datatype": "FP32", "shape": [1, 1, 3], "data": [1, {text}, 2]}}]}}'
        status, _, content = server.request("/v2/models/tones/infer", body.encode())
        assert status == 400 and json.loads(content)["error"]


def tensor(**changes):
    return {"name": "x", "datatype": "FP32", "shape": [1, 2, 3], "data": [0.5] * 6} | changes


REFUSED = [
    (400, []),
    (400, {"inputs": []}),
    (400, {"inputs": {}}),
    (400, {"inputs": ["x"]}),
    (400, {"inputs": [tensor()], "id": 7}),
    (400, {"inputs": [tensor(name="z")]}),
    (400, {"inputs": [tensor(), tensor()]}),
    (400, {"inputs": [tensor(datatype="FP64")]}),
    (400, {"inputs": [tensor(datatype=["FP32"])]}),
    (400, {"inputs": [tensor(datatype="INT64", data=[1] * 6)]}),
    (400, {"inputs": [tensor(shape=[1, 6])]}),
    (400, {"inputs": [tensor(shape=[1, 3, 2])]}),
    (400, {"inputs": [tensor(shape=[1, -2, 3])]}),
    (400, {"inputs": [tensor(shape=[1, True, 3])]}),
    (400, {"inputs": [tensor(shape=[1, 2.0, 3])]}),
    (400, {"inputs": [tensor(shape=[2**40, 2**40, 2**40])]}),
    (400, {"inputs": [tensor(shape=None)]}),
    (400, {"inputs": [tensor(data=[0.5] * 5)]}),
    (400, {"inputs": [tensor(data=["0.5"] * 6)]}),
    (400, {"inputs": [tensor(data=[None] * 6)]}),
    (400, {"inputs": [tensor(data=[True] * 6)]}),
    (400, {"inputs": [tensor(data=[[[True, 1, 1]], [[1, 1, 1]]])]}),
    (400, {"inputs": [tensor(data=[[0.5] * 3, [0.5]])]}),
    (400, {"inputs": [tensor(data={})]}),
    (400, {"inputs": [tensor(parameters={"binary_data_size": 24})]}),
    (400, {"inputs": [tensor(parameters=3)]}),
    (400, {"inputs": [tensor(), {"name": "lengths", "datatype": "INT64", "shape": [1], "data": [3]}]}),
    (400, {"inputs": [tensor(), {"name": "lengths", "datatype": "INT64", "shape": [1], "data": [-1]}]}),
    (400, {"inputs": [tensor(), {"name": "lengths", "datatype": "INT32", "shape": [1], "data": [1]}]}),
    (400, {"inputs": [tensor(), {"name": "lengths", "datatype": "INT64", "shape": [2], "data": [1, 1]}]}),
    (400, {"inputs": [tensor(), {"name": "lengths", "datatype": "INT64", "shape": [1], "data": [2**63]}]}),
    (400, {"inputs": [tensor()], "outputs": [{"name": "c"}]}),
    (400, {"inputs": [tensor()], "outputs": [{"name": "z"}]}),
    (400, {"inputs": [tensor()], "outputs": 5}),
    (400, {"inputs": [tensor()], "outputs": [{"name": "y", "parameters": {"binary_data": 1}}]}),
    (400, {"inputs": [tensor()], "parameters": {"binary_data_output": "yes"}}),
    *(
        (400, {"inputs": [tensor()], "parameters": {"sequence_start": True, **more}})
        for more in (
            {},
            {"sequence_id": 0},
            {"sequence_id": -1},
            {"sequence_id": 2**64},
            {"sequence_id": 1.5},
            {"sequence_id": True},
            {"sequence_id": ""},
            {"sequence_id": "é" * 129},
            {"sequence_id": "\ud800"},
            {"sequence_id": [1]},
            {"sequence_id": 1, "sequence_end": 1},
            {"sequence_id": 1, "timeout": "soon"},
            {"sequence_id": 1, "timeout": -1},
        )
    ),
    (400, {"inputs": [tensor(shape=[2, 1, 3])], "parameters": {"sequence_id": 1, "sequence_start": True}}),
    (404, {"inputs": [tensor()], "parameters": {"sequence_id": 1}}),
    (413, {"inputs": [tensor(shape=[21, 1, 3], data=[0] * 63)]}),
    (413, {"inputs": [tensor(shape=[1, 501, 3], data=[0] * 1503)]}),
    (413, {"inputs": [tensor(shape=[20, 500, 3], data=[0] * 30000)]}),
    (413, {"inputs": [tensor()], "filling": "x" * 300_000}),
]


@pytest.mark.parametrize(("status", "body"), REFUSED, ids=range(len(REFUSED)))
def test_what_is_refused(server, status, body):
    found, headers, content = server.request("/v2/models/tones/infer", body)
    assert found == status and headers["content-type"] == "application/json"
    assert list(json.loads(content)) == ["error"] and "Traceback" not in content.decode()


def test_requests_that_are_no_requests(server):
    infer = "/v2/models/tones/infer"
    good = json.dumps({"inputs": [tensor()]}).encode()
    binary = (
        json.dumps({"inputs": [tensor(data=None, parameters={"binary_data_size": 24})]})
        .replace('"data": null, ', "")
        .encode()
    )
    header = "Inference-Header-Content-Length"
    cases = [
        (404, "/v2/models/none/infer", good, {}),
        (404, "/v2/models/tones/versions/2/infer", good, {}),
        (404, "/v2/models/none", None, {}),
        (404, "/v2/models/none/ready", None, {}),
        (404, "/v2/none", None, {}),
        (404, "/docs", None, {}),
        (405, infer, None, {}),
        (405, "/v2/models/tones", good, {}),
        (400, infer, b"", {}),
        (400, infer, b"{", {}),
        (400, infer, b"[" * 100_000, {}),
        (400, infer, b"\xff\xfe", {}),
        (400, infer, b"9" * 10_000, {}),
        (400, infer, good, {"Content-Encoding": "gzip"}),
        (400, infer, good, {header: "x"}),
        (400, infer, good, {header: "-1"}),
        (400, infer, good, {header: str(len(good) + 1)}),
        (400, infer, good + b"rest", {header: str(len(good))}),
        (400, infer, binary + b"\0" * 23, {header: str(len(binary))}),
        (400, infer, binary + b"\0" * 25, {header: str(len(binary))}),
        (200, infer, binary + b"\0" * 24, {header: str(len(binary))}),
        (200, "/v2/models/tones/versions/1/infer", good, {}),
    ]
    for status, path, body, headers in cases:
        found, _, content = server.request(path, body, headers)
        assert found == status, (path, body and body[:50], headers, content[:200])
        assert status == 200 or list(json.loads(content)) == ["error"]


def test_sequences_of_models_without_streams_are_refused(server):
    for name in ("both", "last"):
        x = random_x(name, (1, 2))
        status, content = server.infer(name, x, {"sequence_id": 1, "sequence_start": True})
        assert status == 400 and "whole sequences" in content["error"]
    status, content = server.infer("down", random_x("down", (1, 3)), {"sequence_id": 1, "sequence_start": True})
    assert status == 400 and "multiple of 2" in content["error"]
    status, content = server.infer("tags", np.array([[3, 11]]))
    assert status == 400 and "step 1 of row 0 of x is 11" in content["error"]


@pytest.mark.parametrize("data", [b"\x16\x03\x01\r\n\r\n", b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n"])
def test_what_is_not_http(server, data):
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(data)
        head, _, body = connection.makefile("rb").read().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ") and list(json.loads(body)) == ["error"]


def test_bodies_without_a_length_are_limited(server):
    """Chunked transfer encoding: what has arrived is counted."""
    with socket.create_connection(("127.0.0.1", server.port), 10) as connection:
        connection.sendall(b"POST /v2/models/tones/infer HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        piece = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
        try:
            for _ in range(6):
                connection.sendall(piece)
            connection.sendall(b"0\r\n\r\n")
        except OSError:
            pass
        assert connection.recv(100).startswith(b"HTTP/1.1 413")


def test_request_ids(server):
    body = json.dumps({"inputs": [tensor()]}).encode()
    _, headers, _ = server.request("/v2/models/tones/infer", body, {"X-Request-ID": "mine-7"})
    assert headers["x-request-id"] == "mine-7"
    _, headers, _ = server.request("/v2/models/tones/infer", b"", {"X-Request-ID": "x" * 1000})
    assert len(headers["x-request-id"]) == 32


def test_metrics_add_up(server):
    labels = 'model="tones",outcome="{}",protocol="http"'
    before = server.metrics()
    server.infer("tones", random_x("tones", (2, 10)))
    server.infer("tones", random_x("tones", (1, 10)), {"sequence_id": 77, "sequence_start": True})
    server.infer("tones", random_x("tones", (1, 10)), {"sequence_id": 78})
    server.request("/v2/models/none-of-them/infer", {})
    after = server.metrics()

    def change(name):
        return after.get(name, 0) - before.get(name, 0)

    assert change(f"fastrnn_requests_total{{{labels.format('ok')}}}") == 2
    assert change(f"fastrnn_requests_total{{{labels.format('not_found')}}}") == 1
    assert change('fastrnn_requests_total{model="",outcome="not_found",protocol="http"}') == 1
    assert change('fastrnn_steps_total{model="tones"}') == 30
    assert change('fastrnn_sessions_opened_total{model="tones"}') == 1
    assert change('fastrnn_sessions_live{model="tones"}') == 1
    assert change('fastrnn_queue_seconds_count{model="tones"}') == 2
    assert change('fastrnn_batch_rows_count{model="tones"}') >= 4  # seven steps each
    assert change('fastrnn_batch_rows_sum{model="tones"}') == 6
    assert after['fastrnn_state_bytes{model="tones"}'] > 1024 * 16 * 4
    assert after['fastrnn_queue_seconds_bucket{le="1e-05",model="tones"}'] >= 0
    assert not any("none-of-them" in name for name in after)


def test_what_cannot_be_served_is_named():
    class Graph:
        why_not_sequential = "it has states as inputs"

    with pytest.raises(ValueError, match=r"a is a builtins.list, wanted a layer.*Graph because it has states"):
        serve.application({"a": [], "b": Graph()})


def test_the_application_can_be_mounted_in_another(served):
    """And called by any client of ASGI."""
    from starlette.applications import Starlette
    from starlette.routing import Mount

    app = Starlette(routes=[Mount("/models", serve.application({"tones": served["tones"]}))])
    x = random_x("tones", (1, 3))
    inputs = [tensor(shape=[1, 3, 3], data=x.ravel().tolist())]
    sent = []

    async def receive():
        return {"type": "http.request", "body": json.dumps({"inputs": inputs}).encode()}

    async def send(message):
        sent.append(message)

    for path in ("/models/v2/models/tones/infer", "/models/v2/models/tones/versions/1/infer"):
        scope = {"type": "http", "method": "POST", "path": path, "headers": [], "root_path": "", "query_string": b""}
        asyncio.run(app(scope, receive, send))
        assert sent[-2]["status"] == 200
        assert same(serving.output(json.loads(sent[-1]["body"])), served["tones"](x)[0])


async def status_of(app, seconds=0.0):
    """Of a request to an application, whose body arrives after so many seconds."""
    x = random_x("tones", (1, 3))
    body = json.dumps({"inputs": [tensor(shape=[1, 3, 3], data=x.ravel().tolist())]}).encode()
    sent = []

    async def receive():
        await asyncio.sleep(seconds)
        return {"type": "http.request", "body": body}

    async def send(message):
        sent.append(message)

    await app({"type": "http", "method": "POST", "path": "/v2/models/tones/infer", "headers": []}, receive, send)
    return sent[0]["status"]


def test_bodies_that_do_not_arrive(served, monkeypatch):
    """They are refused when their time is over, and not those that began later."""
    monkeypatch.setattr(rest, "BODY_SECONDS", 0.2)
    app = serve.application({"tones": served["tones"]})

    async def ask(seconds_before, seconds):
        await asyncio.sleep(seconds_before)
        return await status_of(app, seconds)

    async def main():
        late = [ask(before, 60) for before in (0.0, 0.05, 0.25)]
        return await asyncio.gather(*late, *(ask(before, 0.01) for before in (0.0, 0.15, 0.3)))

    assert asyncio.run(main()) == [408] * 3 + [200] * 3


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_full_batch_does_not_wait_for_more_rows(served, loop):
    app = serve.application({"tones": served["tones"]}, serve.Options(max_delay_us=10**9, max_batch_rows=2))

    async def main():
        return await asyncio.wait_for(asyncio.gather(status_of(app), status_of(app)), 20)

    with asyncio.Runner(loop_factory=loop) as runner:
        assert runner.run(main()) == [200, 200]
