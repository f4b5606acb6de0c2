"""Malformed requests, messages and frames, made by hypothesis: each is refused as its protocol says, nothing fails, and
what is correct is still answered with the right bits."""

import asyncio
import gc
import json

import numpy as np
import pytest
import serving
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastrnn.serve import Options, application
from fastrnn.serve.batcher import Job, Row
from fastrnn.serve.grpc_messages import CLASSES
from fastrnn.serve.grpc_server import _Call
from fastrnn.serve.refusals import Refusal
from fastrnn.serve.service import MOST_BODIES

X = np.random.default_rng(0).standard_normal((1, 4, 3)).astype("f4")


class Client:
    """An application in this process, called without a network."""

    def __init__(self):
        self.layer = serving.random_layer("GRU", 3, 8)
        tags = serving.models()["tags"]
        options = Options(max_chunk_steps=50, max_body_bytes=5000, max_batch_rows=8, max_sessions=4, max_batch_steps=3)
        self.runner = asyncio.Runner()
        self.app = application({"tones": self.layer, "tags": tags}, options)
        self.wanted = self.layer(X)[0]

    def infer(self, body, headers=(), model="tones"):
        """Status, headers and content of a request, the body in two parts."""

        async def run():
            parts = [(body[:10], True), (body[10:], False)]
            sent = []

            async def receive():
                if parts:
                    part, more = parts.pop(0)
                    return {"type": "http.request", "body": part, "more_body": more}
                await asyncio.Future()

            async def send(message):
                sent.append(message)

            path = f"/v2/models/{model}/infer"
            scope = {"type": "http", "method": "POST", "path": path, "headers": list(headers)}
            await self.app(scope, receive, send)
            return sent[0]["status"], dict(sent[0]["headers"]), b"".join(m.get("body", b"") for m in sent[1:])

        return self.runner.run(run())

    def connect(self, messages):
        """What a WebSocket's client is sent, if it sends these messages and then waits."""

        async def run():
            waiting = [{"type": "websocket.connect"}, *messages]
            sent = []
            closed = asyncio.Event()

            async def receive():
                if waiting:
                    return waiting.pop(0)
                await asyncio.wait_for(closed.wait(), 0.05 if not sent or len(sent) > len(messages) + 1 else 2)
                return {"type": "websocket.disconnect", "code": 1000}

            async def send(message):
                sent.append(message)
                if message["type"] == "websocket.close" or len(sent) == len(messages) + 2:
                    closed.set()

            path = "/v2/models/tones/stream"
            headers = [(b"host", b"a")]
            scope = {"type": "websocket", "path": path, "headers": headers, "subprotocols": [], "query_string": b""}
            await self.app(scope, receive, send)
            return sent

        return self.runner.run(run())

    def grpc(self, data):
        """The ModelInferResponse; raises Refusal."""

        async def run():
            call = _Call(self.app.service)
            try:
                call.submit(data, "", None)
                return await call.response()
            finally:
                call.count("ok")
                call.release_answer()

        return self.runner.run(run())

    def check(self):
        """A correct request is answered, and nothing is left of the others."""
        tensor = {"name": "x", "datatype": "FP32", "shape": [1, 4, 3], "data": X.ravel().tolist()}
        status, _, content = self.infer(json.dumps({"inputs": [tensor]}).encode())
        assert status == 200 and serving.output(json.loads(content)).tobytes() == self.wanted.tobytes()
        entry = self.app.service.entries["tones"]
        assert (entry.batcher.waiting, entry.batcher.unfinished, self.app.service.held_bytes) == (0, 0, 0)


@pytest.fixture(scope="module")
def client():
    client = Client()
    yield client
    client.app.service.stop()
    client.runner.close()


LITTLE = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

numbers = st.integers(-3, 60) | st.integers() | st.floats() | st.booleans() | st.none()
anything = st.recursive(
    numbers | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
)
shapes = st.lists(st.integers(-1, 60), max_size=4) | st.just([1, 2, 3]) | anything
names = st.sampled_from(["x", "lengths", "y", "h", "c", ""]) | st.text(max_size=3)
tensors = st.fixed_dictionaries(
    {"name": names, "datatype": st.sampled_from(["FP32", "INT64", "INT32", "BYTES"]), "shape": shapes},
    optional={
        "data": st.lists(numbers, max_size=12) | anything,
        "parameters": st.fixed_dictionaries({"binary_data_size": numbers}) | anything,
    },
)
parameters = st.dictionaries(
    st.sampled_from(["sequence_id", "sequence_start", "sequence_end", "timeout", "binary_data_output", "priority"]),
    st.just(1) | st.booleans() | anything,
)
requests = st.fixed_dictionaries(
    {"inputs": st.lists(tensors, min_size=1, max_size=3) | anything},
    optional={
        "outputs": st.lists(st.fixed_dictionaries({"name": names}), max_size=3) | anything,
        "parameters": parameters | anything,
        "id": st.text(max_size=5) | anything,
    },
)


def check_answer(status, headers, content):
    assert status in (200, 400, 404, 413, 429, 504), content
    if status != 200:
        error = json.loads(content)
        assert list(error) == ["error"] and isinstance(error["error"], str) and len(error["error"]) < 1000
    elif b"inference-header-content-length" not in headers:
        json.loads(content, parse_constant=pytest.fail)


@LITTLE
@given(requests, st.sampled_from(["tones", "tags"]))
def test_requests_in_json(client, request, model):
    check_answer(*client.infer(json.dumps(request).encode(), model=model))


@LITTLE
@given(requests, st.binary(max_size=100), st.none() | st.integers(-5, 200) | st.text(max_size=3))
def test_requests_with_binary_data(client, request, data, length):
    text = json.dumps(request).encode()
    given_length = len(text) if length is None else length
    header = (b"inference-header-content-length", str(given_length).encode("latin-1", "replace"))
    check_answer(*client.infer(text + data, [header]))


@LITTLE
@given(st.binary(max_size=200) | st.text(alphabet='{}[]":,0123456789.eE-nulltrue', max_size=100).map(str.encode))
def test_bodies_that_are_no_json(client, body):
    status, _, content = client.infer(body)
    assert status == 400 and list(json.loads(content)) == ["error"]


@LITTLE
@given(st.data())
def test_a_good_request_with_bytes_changed(client, data):
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 4, 3], "data": X.ravel().tolist()}
    body = bytearray(
        json.dumps({"inputs": [tensor], "parameters": {"sequence_id": 1, "sequence_start": True}}).encode()
    )
    for _ in range(data.draw(st.integers(1, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    check_answer(*client.infer(bytes(body)))


@LITTLE
@given(st.data())
def test_protobufs(client, data):
    message = CLASSES["ModelInferRequest"](model_name="tones", id="a")
    message.inputs.add(name="x", datatype="FP32", shape=[1, 4, 3])
    message.raw_input_contents.append(X.tobytes())
    message.parameters["sequence_id"].int64_param = 1
    message.parameters["sequence_start"].bool_param = True
    body = bytearray(message.SerializeToString())
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, len(body) - 1))
        body[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
        if not body:
            break
    try:
        client.grpc(bytes(body))
    except Refusal as refusal:
        assert refusal.kind.code in ("INVALID_ARGUMENT", "NOT_FOUND", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED")


frames = st.builds(
    lambda steps, extra: {"type": "websocket.receive", "bytes": b"\0" * (12 * steps) + extra},
    st.integers(0, 60),
    st.just(b"") | st.binary(max_size=3),
)
texts = st.builds(
    lambda text: {"type": "websocket.receive", "text": text},
    st.sampled_from(['{"type": "reset"}', '{"type": "snapshot"}', '{"type": "restore", "data": "AAAA"}', "{}", "null"])
    | st.text(max_size=20)
    | anything.map(json.dumps),
)


@LITTLE
@given(st.lists(frames | texts, max_size=6))
def test_frames_and_messages(client, messages):
    """One answer each, in order, up to the first that is refused, which closes."""
    sent = client.connect(messages)
    assert sent[0]["type"] == "websocket.accept" and json.loads(sent[1]["text"])["type"] == "session"
    answers = sent[2:]
    for message, answer in zip(messages, answers, strict=False):
        if "text" in answer and json.loads(answer["text"])["type"] == "error":
            assert sent[-1]["type"] == "websocket.close" and sent[-1]["code"] in (1008, 1009)
            assert answer is sent[-2]
            break
        assert ("bytes" in answer) == ("bytes" in message)
        if "bytes" in answer:
            assert len(answer["bytes"]) == len(message["bytes"]) // 12 * 32
    else:
        assert len(answers) == len(messages)


def test_correct_requests_are_still_answered(client):
    client.check()
    service = client.app.service
    assert len(service.entries["tones"].sessions) <= 4


def test_answers_are_counted_until_they_are_sent(client):
    """As many as fit beside each other wait for their clients; the next request is refused by either protocol."""
    x = np.ones((8, 15, 3), "f4")  # y (8, 15, 8)
    tensor = {"name": "x", "datatype": "FP32", "shape": [8, 15, 3], "data": [1] * 360}
    path, service = "/v2/models/tones/infer", client.app.service
    message = CLASSES["ModelInferRequest"](model_name="tones", raw_input_contents=[x.tobytes()])
    message.inputs.add(name="x", datatype="FP32", shape=x.shape)

    async def run():
        taken = asyncio.Event()
        statuses = []

        async def ask(binary):
            request = {"inputs": [tensor], "parameters": {"binary_data_output": binary}}
            parts = [{"type": "http.request", "body": json.dumps(request).encode()}]

            async def receive():
                return parts.pop() if parts else await asyncio.Future()

            async def send(message):
                if message["type"] == "http.response.start":
                    statuses.append(message["status"])
                else:
                    await taken.wait()

            await client.app({"type": "http", "method": "POST", "path": path, "headers": []}, receive, send)

        room = MOST_BODIES * 5000
        json_bytes, binary_bytes = 960 * 24, 960 * 4
        tasks = []
        while service.held_bytes + json_bytes + 1500 <= room:
            tasks.append(asyncio.ensure_future(ask(False)))
            while len(statuses) < len(tasks):
                await asyncio.sleep(0.001)
        assert service.held_bytes == len(tasks) * json_bytes and set(statuses) == {200}
        while service.held_bytes + binary_bytes + 1500 <= room:
            tasks.append(asyncio.ensure_future(ask(True)))
            while len(statuses) < len(tasks):
                await asyncio.sleep(0.001)
        assert set(statuses) == {200} and len(tasks) > 6
        tasks.append(asyncio.ensure_future(ask(False)))
        call = _Call(service)
        with pytest.raises(Refusal, match="requests and answers are in memory") as refusal:
            call.submit(message.SerializeToString(), "", None)
        assert refusal.value.kind.code == "RESOURCE_EXHAUSTED" and refusal.value.retry_after == 1
        call.count("refused")
        while len(statuses) < len(tasks):
            await asyncio.sleep(0.001)
        assert statuses[-1] == 429
        tasks[0].cancel()
        taken.set()
        await asyncio.gather(*tasks, return_exceptions=True)

    client.runner.run(run())
    client.check()


def test_memory_of_what_has_ended_is_free_at_once(client):
    """Not when garbage is collected, which a server under load would do late."""
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            client.check()
            messages = [{"type": "websocket.receive", "bytes": X.tobytes()}, {"type": "websocket.receive", "text": "?"}]
            client.connect(messages)
        left = [thing for thing in gc.get_objects() if isinstance(thing, Row | Job)]
        assert not left
    finally:
        gc.enable()
