"""WebSocket: one session a connection, with the bits of a stream; every message has one answer."""

import asyncio
import base64
import concurrent.futures
import contextlib
import json
import socket
import time

import anyio
import numpy as np
import pytest
import serving
from test_serve_rest import random_x
from websockets.asyncio.client import connect as connect_async
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from fastrnn import serve

models, served, server = serving.fixtures(
    "--max-chunk-steps=600", "--max-body-bytes=100000", "--max-sessions=100", "--max-queue=8", "--max-batch-steps=16"
)


def url(server, model="speech"):
    return f"ws://{server.http}/v2/models/{model}/stream"


def open_session(server, model="speech", **options):
    """A connection and its greeting."""
    connection = connect(url(server, model), open_timeout=20, compression=None, **options)
    return connection, json.loads(connection.recv(20))


def say(connection, **message):
    connection.send(json.dumps(message))
    return json.loads(connection.recv(20))


@pytest.mark.parametrize("name", ["speech", "tones", "tags", "down"])
def test_chunks_have_the_bits_of_the_whole(server, served, name):
    model = served[name]
    x = random_x(name, (1, 120))
    wanted = model(x)
    wanted = (wanted[0] if isinstance(wanted, tuple) else wanted)[0]
    connection, greeting = open_session(server, name)
    dtype = "int64" if name == "tags" else "float32"
    assert greeting == {
        "type": "session",
        "model": name,
        "dtype": dtype,
        "input_size": model.input_size,
        "output_size": model.output_size,
        "max_chunk_steps": 600,
    }
    with connection:
        parts = []
        first = 0
        for count in (2, 0, 98, 20):
            connection.send(x[0, first : first + count].tobytes())
            parts.append(np.frombuffer(connection.recv(20), "<f4").reshape(-1, model.output_size))
            first += count
        assert np.concatenate(parts).tobytes() == wanted.tobytes()


def test_frames_sent_ahead_are_answered_in_order(server, served):
    x = random_x("speech", (1, 500))
    connection, _ = open_session(server)
    with connection:
        for first in range(0, 500, 5):
            connection.send(x[0, first : first + 5].tobytes())
            if first == 250:
                connection.send('{"type": "snapshot"}')
        answers = [connection.recv(20) for _ in range(101)]
    snapshot = answers.pop(51)
    assert np.frombuffer(b"".join(answers), "f4").tobytes() == served["speech"](x)[0].tobytes()
    stream = served["speech"].stream()
    stream.run(x[:, :255])
    assert base64.b64decode(json.loads(snapshot)["data"]) == stream.snapshot()


def test_reset_snapshot_restore(server, served):
    x = random_x("tones", (1, 10))
    y = served["tones"](x)[0][0]
    connection, _ = open_session(server, "tones")
    with connection:
        connection.send(x[0, :4].tobytes())
        connection.recv(20)
        saved = say(connection, type="snapshot")
        assert saved["type"] == "snapshot"
        assert say(connection, type="reset") == {"type": "reset"}
        connection.send(x[0].tobytes())
        assert connection.recv(20) == y.tobytes()
        assert say(connection, type="restore", data=saved["data"]) == {"type": "restored"}
        connection.send(x[0, 4:].tobytes())
        assert connection.recv(20) == y[4:].tobytes()
    other, _ = open_session(server, "tones")
    with other:
        say(other, type="restore", data=saved["data"])
        other.send(x[0, 4:].tobytes())
        assert other.recv(20) == y[4:].tobytes()


def test_sessions_side_by_side(server, served):
    async def one(number):
        x = random_x("speech", (1, 60), seed=number)
        async with connect_async(url(server), open_timeout=20, compression=None) as connection:
            await connection.recv()
            parts = []
            for first in range(0, 60, 6):
                await connection.send(x[0, first : first + 6].tobytes())
                parts.append(await connection.recv())
            return b"".join(parts) == served["speech"](x)[0].tobytes()

    async def run():
        return await asyncio.gather(*(one(number) for number in range(50)))

    assert asyncio.run(run()) == [True] * 50


REFUSED = [
    (1008, "multiple of 20", b"123"),
    (1008, "multiple of 20", b"1" * 21),
    (1009, "more than 600", b"\0" * 20 * 601),
    (1009, "more than 100000", b"\0" * 100_021),
    (1008, "not a JSON object", "hello"),
    (1008, "not a JSON object", "[" * 50_000),
    (1008, "not a JSON object", "[]"),
    (1008, "not a JSON object", '{"kind": "reset"}'),
    (1008, "wanted reset", '{"type": "sing"}'),
    (1008, "wanted reset", '{"type": ["reset"]}'),
    (1008, "base64", '{"type": "restore"}'),
    (1008, "base64", '{"type": "restore", "data": "***"}'),
    (1008, "base64", '{"type": "restore", "data": 3}'),
    (1008, "snapshot", '{"type": "restore", "data": "AAAA"}'),
    (1009, "more than 100000", '{"type": "restore", "data": "%s"}' % ("A" * 100_000)),
    (1009, "more than 100000", '{"type": "é%s"}' % ("é" * 50_000)),  # of fewer characters
]


@pytest.mark.parametrize(("code", "text", "message"), REFUSED, ids=range(len(REFUSED)))
def test_an_error_is_told_after_the_answers_and_closes(server, served, code, text, message):
    x = random_x("speech", (1, 3))
    connection, _ = open_session(server)
    with connection:
        connection.send(x[0].tobytes())
        connection.send(message)
        with contextlib.suppress(ConnectionClosed):  # it may be closed already
            connection.send(x[0].tobytes())
        assert connection.recv(20) == served["speech"](x)[0].tobytes()
        error = json.loads(connection.recv(20))
        assert error["type"] == "error" and text in error["message"] and list(error) == ["type", "message"]
        with pytest.raises(ConnectionClosed) as closed:
            connection.recv(20)
        assert closed.value.rcvd.code == code


def test_ids_and_strides(server):
    for name, frame, text in (
        ("tags", np.array([3, 11]), "ids from 0 to 10"),
        ("down", np.ones((3, 5), "f4"), "multiple of 2"),
    ):
        connection, _ = open_session(server, name)
        with connection:
            connection.send(frame.tobytes())
            assert text in json.loads(connection.recv(20))["message"]


def test_frames_beyond_what_the_library_takes(server):
    for message in (b"\0" * 2_000_000, "a" * 2_000_000):
        connection, _ = open_session(server)
        with connection:
            with contextlib.suppress(ConnectionClosed):
                connection.send(message)
            error = json.loads(connection.recv(20))
            assert error == {"type": "error", "message": "the message has more than 265536 bytes"}
            with pytest.raises(ConnectionClosed) as closed:
                connection.recv(20)
            assert closed.value.rcvd.code == 1009


def test_large_answers_wait_for_their_client():
    """Of a client that takes nothing, frames are read until their answers have `max_body_bytes`, and then no more."""
    steps, sent = 20, []  # of 64 bytes
    frame = {"type": "websocket.receive", "bytes": np.ones((steps, 3), "f4").tobytes()}
    options = serve.Options(max_body_bytes=5 * steps * 64)
    app = serve.application({"tones": serving.models()["tones"]}, options)
    app.service.entries["tones"].batcher._inline_work = 0  # the thread computes, so that frames are read meanwhile
    scope = {"type": "websocket", "path": "/v2/models/tones/stream", "headers": [], "subprotocols": []}

    async def run():
        messages = [{"type": "websocket.connect"}, *[frame] * 12]
        taken = asyncio.Event()

        async def receive():
            return messages.pop(0) if messages else await asyncio.Future()

        async def send(message):
            if "bytes" in message:
                await taken.wait()
                sent.append(message["bytes"])

        task = asyncio.ensure_future(app({**scope, "query_string": b""}, receive, send))
        await asyncio.sleep(0.2)
        assert len(messages) == 12 - 6  # one of them waits to be run
        taken.set()
        async with asyncio.timeout(10):
            while len(sent) < 12:
                await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait([task])
        app.service.stop()

    asyncio.run(run())
    assert {len(answer) for answer in sent} == {steps * 64}


def refusal_of(server, model="speech", **options):
    with pytest.raises(InvalidStatus) as error:
        connect(url(server, model), open_timeout=20, **options)
    response = error.value.response
    assert list(json.loads(response.body)) == ["error"]
    return response


def test_handshakes_that_are_refused(server):
    assert refusal_of(server, "none").status_code == 404
    assert refusal_of(server, "speech/none").status_code == 404  # a path that is none
    assert refusal_of(server, "both").status_code == 400
    for origin in ("http://example.org", f"http://{server.http}0", "http://localhost", "null"):
        assert refusal_of(server, origin=origin).status_code == 403
    for origin in (f"http://{server.http}", f"https://{server.http}"):
        open_session(server, origin=origin)[0].close()


def test_places_are_given_back(server):
    connections = [open_session(server, "tones")[0] for _ in range(100)]
    response = refusal_of(server, "tones")
    assert response.status_code == 429 and int(response.headers["retry-after"]) >= 1
    for connection in connections[1:]:
        connection.close()
    deadline = time.monotonic() + 10
    while server.metrics()['fastrnn_sessions_live{model="tones"}'] != 1:
        assert time.monotonic() < deadline
    again = [open_session(server, "tones")[0] for _ in range(99)]
    for connection in [connections[0], *again]:
        connection.close()


def test_a_full_queue_stops_the_reading_and_refuses_nothing(server, served):
    """Eight requests may wait; twenty connections with ten frames each are all answered."""
    x = random_x("wide", (1, 300))
    wanted = served["wide"](x)[0][0]

    async def one():
        async with connect_async(url(server, "wide"), open_timeout=20, compression=None) as connection:
            await connection.recv()
            for first in range(0, 300, 30):
                await connection.send(x[0, first : first + 30].tobytes())
            return b"".join([await connection.recv() for _ in range(10)]) == wanted.tobytes()

    async def run():
        return await asyncio.gather(*(one() for _ in range(20)))

    assert asyncio.run(run()) == [True] * 20


def test_requests_beyond_the_queue_are_refused_at_once(server, served):
    """Every request is answered, with the right bits or with 429, and what is refused has not begun its sequence."""
    x = random_x("wide", (1, 50))
    wanted = served["wide"](x)[0]

    def ask(number):
        return number, *server.infer("wide", x, {"sequence_id": number, "sequence_start": True})

    with concurrent.futures.ThreadPoolExecutor(60) as threads:
        answers = list(threads.map(ask, range(1, 61)))
    accepted = [number for number, status, _ in answers if status == 200]
    assert {status for _, status, _ in answers} <= {200, 429} and accepted
    assert all(serving.output(content).tobytes() == wanted.tobytes() for _, status, content in answers if status == 200)
    for number, status, _ in answers:
        found = server.infer("wide", x[:, :1], {"sequence_id": number, "sequence_end": True})[0]
        assert found == (200 if status == 200 else 404)


def test_clients_that_are_killed_leave_nothing(server):
    """Connections cut in the middle of frames, and half-open ones."""
    before = server.metrics()['fastrnn_sessions_live{model="speech"}']
    frame = random_x("speech", (1, 600))[0].tobytes()
    for number in range(20):
        connection, _ = open_session(server)
        connection.send(frame)
        if number % 2:
            raw = connection.socket
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            connection.send(frame)
        connection.socket.shutdown(socket.SHUT_RDWR)  # close() alone would wait for the library's thread that reads
        connection.socket.close()
    with socket.create_connection(("127.0.0.1", server.port), 10) as raw:
        raw.sendall(b"GET /v2/models/speech/stream HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n")
        deadline = time.monotonic() + 20
        while server.metrics()['fastrnn_sessions_live{model="speech"}'] != before:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    assert server.infer("speech", random_x("speech", (1, 3)))[0] == 200


def test_slow_readers_do_not_delay_others(server, served):
    """A client that sends and does not read is not read any further, and others are answered."""
    x = random_x("wide", (1, 97))
    slow, _ = open_session(server, "wide", max_queue=1, close_timeout=0.2)
    slow.socket.settimeout(1)
    with slow:
        with contextlib.suppress(TimeoutError, ConnectionClosed):  # the server reads no more, and the library gives up
            for _ in range(300):
                slow.send(x[0].tobytes())
        connection, _ = open_session(server, "wide")
        with connection:
            start = time.monotonic()
            connection.send(x[0].tobytes())
            assert connection.recv(20) == served["wide"](x)[0].tobytes()
            assert time.monotonic() - start < 10


def test_metrics_count_frames(server):
    label = 'fastrnn_requests_total{{model="tags",outcome="{}",protocol="websocket"}}'
    before = server.metrics()
    connection, _ = open_session(server, "tags")
    with connection:
        for _ in range(3):
            connection.send(np.array([1, 2]).tobytes())
            connection.recv(20)
        say(connection, type="reset")
        connection.send(b"1")
        connection.recv(20)
    after = server.metrics()
    assert after[label.format("ok")] - before.get(label.format("ok"), 0) == 3
    assert after[label.format("invalid")] - before.get(label.format("invalid"), 0) == 1


def test_a_text_that_is_not_utf8_closes_the_connection(server):
    """By the protocol's own code; it is no error of the server, whose log has none (see `fixtures`)."""
    connection, _ = open_session(server, "tones")
    with connection:
        connection.send(b"\xff", text=True)
        with pytest.raises(ConnectionClosed) as closed:
            connection.recv(20)
        assert closed.value.rcvd.code == 1007


@pytest.mark.parametrize("turns", range(10))
def test_a_connection_that_is_cancelled_ends_with_that_cancellation(served, turns):
    """Test clients of frameworks cancel it some turns of the event loop after its end, and recognise their own."""
    app = serve.application({"tones": served["tones"]})
    scope = {"type": "websocket", "path": "/v2/models/tones/stream", "headers": [], "subprotocols": [], "root_path": ""}

    async def main():
        incoming, sent = asyncio.Queue(), []
        incoming.put_nowait({"type": "websocket.connect"})

        async def send(message):
            sent.append(message["type"])

        async def end():
            while len(sent) < 2:
                await asyncio.sleep(0)
            incoming.put_nowait({"type": "websocket.disconnect"})
            for _ in range(turns):
                await asyncio.sleep(0)
            cancellation.cancel()

        with anyio.CancelScope() as cancellation:
            ending = asyncio.ensure_future(end())
            await app(scope, incoming.get, send)
            await ending
            await anyio.sleep_forever()
        assert cancellation.cancelled_caught and sent == ["websocket.accept", "websocket.send"]

    asyncio.run(main())
