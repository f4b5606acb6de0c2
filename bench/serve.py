"""``fastrnn serve`` under load, beside what people write today: starlette over onnxruntime, a session's state by hand.

    pip install -e '.[serve,grpc,peers]'
    python bench/serve.py load          # WebSocket sessions: p50, p99, chunks a second, of both servers
    python bench/serve.py latency       # what HTTP and WebSocket add to the engine's time
    python bench/serve.py overload      # ten times the load that the server can bear
    python bench/serve.py soak          # sessions that come and go, for ten minutes
    python bench/serve.py shutdowns     # a hundred SIGTERMs under load
    python bench/serve.py ray           # the same server alone, and as one and two replicas of Ray Serve (extra ray)

``--seconds`` and ``--count`` make them shorter. overload, soak and shutdowns fail if an answer is wrong, missing or
sent twice, or if the server's metrics do not agree with what was asked. The server and this program, which makes the
load, have a processor each. Both servers use the same uvicorn with the same options, the same WebSocket protocol and
the same weights, and their answers are compared first.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import selectors
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections import deque
from pathlib import Path

import numpy as np

import fastrnn
from fastrnn.benchmark import onnx_model
from fastrnn.benchmark.workloads import Workload, build_layer

CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE, LOAD_CORE = CORES[0], CORES[-1]

TIMEOUT = 120  # seconds in which an answer must have come


def workload_of(cell, size, input_size=None):
    """One layer, its input as wide as its state if input_size is None."""
    return Workload("serve", cell, input_size or size, size, 1, 1, 1, 1, "stream")


# The plain server


def plain(cell, size, port):
    """Run the server to compare with: onnxruntime in the event loop's thread, a session for each connection."""
    import onnxruntime
    import uvicorn
    from starlette.applications import Starlette
    from starlette.responses import Response
    from starlette.routing import Route, WebSocketRoute
    from starlette.websockets import WebSocketDisconnect

    workload = workload_of(cell, size)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(onnx_model.model(workload), options)
    states = onnx_model.state_names(workload)
    outputs = onnx_model.output_names(workload)

    async def stream(websocket):
        await websocket.accept()
        await websocket.send_json({"type": "session"})
        state = {name: np.zeros((1, 1, size), np.float32) for name in states}
        with contextlib.suppress(WebSocketDisconnect):
            while True:
                x = np.frombuffer(await websocket.receive_bytes(), np.float32).reshape(-1, 1, size)
                y, *after = session.run(outputs, {"x": x, **state})
                state = dict(zip(states, after, strict=True))
                await websocket.send_bytes(y.tobytes())

    async def ready(request):
        return Response()

    app = Starlette(routes=[WebSocketRoute("/v2/models/m/stream", stream), Route("/v2/health/ready", ready)])
    uvicorn.run(app, port=port, log_level="error", ws="websockets-sansio", ws_per_message_deflate=False)


@contextlib.contextmanager
def server(command, port):
    """A process on the server's processor that answers on that port."""
    process = subprocess.Popen(
        command,
        preexec_fn=lambda: os.sched_setaffinity(0, {SERVER_CORE}),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        wait_until_ready(process, port)
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(30)
        process.stderr.close()


def wait_until_ready(process, port):
    for _ in range(600):
        if process.poll() is not None:
            raise SystemExit(f"the server has ended: {process.stderr.read().decode()}")
        try:
            if http(port, "GET", "/v2/health/ready")[0] == 200:
                return
        except OSError:
            time.sleep(0.05)
    raise SystemExit("the server does not answer")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def fastrnn_server(cell, size, *options, input_size=None):
    """``fastrnn serve`` of one model, m; yields its port and process."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "m.safetensors"
        build_layer(workload_of(cell, size, input_size)).save(path)
        port = free_port()
        command = [sys.executable, "-m", "fastrnn", "serve", f"m={path}", "--port", str(port), "--grpc-port", "0"]
        with server([*command, "--log-level", "error", *map(str, options)], port) as process:
            yield port, process


@contextlib.contextmanager
def plain_server(cell, size):
    port = free_port()
    with server([sys.executable, __file__, "plain", cell, str(size), str(port)], port) as process:
        yield port, process


SERVERS = {"fastrnn": fastrnn_server, "plain": plain_server}

# The clients: no library, so that the load costs little. A mask of zeros leaves a frame as it is.


def http(port, method, path, body=b"", headers=()):
    """One request on a connection of its own: status and body."""
    with socket.create_connection(("127.0.0.1", port), TIMEOUT) as connection:
        connection.sendall(http_request(method, path, body, [*headers, "Connection: close"]))
        data = b""
        while part := connection.recv(1 << 16):
            data += part
    head, _, content = data.partition(b"\r\n\r\n")
    return int(head.split()[1]), content


def http_request(method, path, body, headers=()):
    lines = [f"{method} {path} HTTP/1.1", "Host: a", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def http_parts(data):
    """Status, head and body of a whole answer; None if some of it is missing."""
    head, found, body = data.partition(b"\r\n\r\n")
    if not found:
        return None
    head = head.lower()
    size = int(head.partition(b"\r\ncontent-length:")[2].split()[0])
    return (int(head[9:12]), head, body) if len(body) >= size else None


def infer_request(x, outputs=("y",), **parameters):
    """A binary request of x (B, T, I)."""
    head = {
        "inputs": [
            {"name": "x", "datatype": "FP32", "shape": list(x.shape), "parameters": {"binary_data_size": x.nbytes}}
        ],
        "outputs": [{"name": name} for name in outputs],
        "parameters": {"binary_data_output": True, **parameters},
    }
    text = json.dumps(head).encode()
    return http_request(
        "POST", "/v2/models/m/infer", text + x.tobytes(), [f"Inference-Header-Content-Length: {len(text)}"]
    )


def frame(payload):
    """A binary frame from a client."""
    if len(payload) < 126:
        head = struct.pack("!BB", 0x82, 0x80 | len(payload))
    elif len(payload) < 1 << 16:
        head = struct.pack("!BBH", 0x82, 0x80 | 126, len(payload))
    else:
        head = struct.pack("!BBQ", 0x82, 0x80 | 127, len(payload))
    return head + b"\0\0\0\0" + payload


PING = b"\x89"


def frame_of(data):
    """The payload of the first whole frame from a server that is no ping, and the bytes after it; or None."""
    if data[:1] == PING:  # not answered: no connection stays as long as the server waits for that
        data = data[2 + data[1] :] if len(data) > 1 else b""
    if len(data) < 2:
        return None
    size, at = data[1], 2
    if size == 126:
        if len(data) < 4:
            return None
        size, at = struct.unpack_from("!H", data, 2)[0], 4
    elif size == 127:
        if len(data) < 10:
            return None
        size, at = struct.unpack_from("!Q", data, 2)[0], 10
    return None if len(data) < at + size else (data[at : at + size], data[at + size :])


def connect(port):
    connection = socket.create_connection(("127.0.0.1", port), TIMEOUT)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def open_session(port):
    connection = connect(port)
    key = "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13"
    connection.sendall(
        b"GET /v2/models/m/stream HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        + f"{key}\r\n\r\n".encode()
    )
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(4096)
    head, _, data = data.partition(b"\r\n\r\n")
    if b" 101 " not in head.split(b"\r\n")[0]:
        raise SystemExit(f"the handshake was refused: {head!r}")
    while frame_of(data) is None:
        data += connection.recv(4096)
    return connection


def ask(connection, request, http_answer=False):
    """Send a request and wait for its answer."""
    connection.sendall(request)
    data = b""
    while True:
        part = connection.recv(1 << 18)
        if not part:
            raise ConnectionError("the connection was closed")
        data += part
        if http_answer:
            if (parts := http_parts(data)) is not None:
                return parts
        elif (answer := frame_of(data)) is not None:
            return answer[0]


def closed_loop(port, sessions, chunk, seconds):
    """Sessions that send a chunk as soon as the last one is answered.

    Returns the latencies after a start, in seconds, the chunks a second, and how many chunks were answered in all.
    """
    request = frame(chunk.tobytes())
    connections = [open_session(port) for _ in range(sessions)]
    latencies = []
    answered = 0
    with selectors.DefaultSelector() as selector:
        sent, received = {}, {}
        for connection in connections:
            selector.register(connection, selectors.EVENT_READ)
            received[connection] = b""
        start = time.perf_counter()
        warm, end = start + 0.2 * seconds, start + seconds
        for connection in connections:
            sent[connection] = time.perf_counter()
            connection.sendall(request)
        while sent:
            for key, _ in selector.select(1):
                connection = key.fileobj
                data = received[connection] + connection.recv(1 << 18)
                answer = frame_of(data)
                if answer is None:
                    received[connection] = data
                    continue
                received[connection] = answer[1]
                assert not answer[1], "there is more than one answer"
                answered += 1
                now = time.perf_counter()
                if warm < sent[connection] and now < end:
                    latencies.append(now - sent[connection])
                if now < end:
                    sent[connection] = now
                    connection.sendall(request)
                else:
                    del sent[connection]
    for connection in connections:
        connection.close()
    return np.array(latencies), len(latencies) / (0.8 * seconds), answered


def chunk_of(size, steps):
    return np.random.default_rng(1).standard_normal((steps, size)).astype("f4")


def check_same(cell, size):
    """Both servers compute the same, up to rounding."""
    chunk = chunk_of(size, 10)
    answers = []
    for make in SERVERS.values():
        with make(cell, size) as (port, _):
            connection = open_session(port)
            answers.append(np.frombuffer(ask(connection, frame(chunk.tobytes())), "f4"))
            connection.close()
    assert np.abs(answers[0] - answers[1]).max() < 1e-5
    wanted = build_layer(workload_of(cell, size))(chunk[None])[0]
    assert answers[0].tobytes() == wanted.tobytes()


def chosen(cases, options):
    return [cases[index] for index in options.cases or range(len(cases))]


def load(options):
    """Latency of sessions in a closed loop: fastrnn with two and three times the sessions of the plain server."""
    cases = [(cell, size, 10) for cell in ("lstm", "gru") for size in (256, 512)] + [("lstm", 128, 1), ("gru", 128, 1)]
    print(f"{'model':9} {'steps':>5} {'server':8} {'sessions':>8} {'p50 ms':>8} {'p99 ms':>8} {'chunks/s':>9}")
    for cell, size, steps in chosen(cases, options):
        check_same(cell, size)
        chunk = chunk_of(size, steps)
        counts = {"plain": (1, 64), "fastrnn": (1, 64, 128, 192)}
        for name, make in SERVERS.items():
            with make(cell, size) as (port, _):
                for sessions in counts[name]:
                    latencies, rate, _ = closed_loop(port, sessions, chunk, options.seconds)
                    p50, p99 = np.percentile(latencies, [50, 99]) * 1e3
                    print(
                        f"{cell} {size:<5}{steps:>5} {name:8} {sessions:>8} {p50:>8.2f} {p99:>8.2f} {rate:>9.0f}",
                        flush=True,
                    )


def latency(options):
    """The p50 of one client, and what of it is the engine's, in microseconds."""
    for cell, size, steps in chosen([("lstm", 128, 1), ("lstm", 256, 10), ("gru", 512, 10)], options):
        one_latency(cell, size, steps, options.seconds)


def one_latency(cell, size, steps, seconds):
    chunk = chunk_of(size, steps)
    stream = build_layer(workload_of(cell, size)).stream()
    fastrnn.set_num_threads(1)
    engine = timed(lambda: stream.run(chunk[None]), seconds)
    with fastrnn_server(cell, size) as (port, _):
        with open_session(port) as connection:
            request = frame(chunk.tobytes())
            websocket = timed(lambda: ask(connection, request), seconds)
        with connect(port) as connection:
            bare = http_request("GET", "/v2/health/live", b"")
            http_alone = timed(lambda: ask(connection, bare, True), seconds)
            binary = infer_request(chunk[None])
            rest = timed(lambda: ask(connection, binary, True), seconds)
    print(
        f"{cell} {size}, {steps} steps: engine {engine:.0f} us; WebSocket {websocket:.0f} ({websocket - engine:+.0f}); "
        f"REST binary {rest:.0f} ({rest - engine:+.0f}); a request of HTTP without inference {http_alone:.0f}",
        flush=True,
    )


def timed(call, seconds):
    """The median time of a call, in microseconds."""
    times = []
    end = time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        call()
        times.append(time.perf_counter() - start)
    return float(np.median(times)) * 1e6


def open_loop(port, request, rate, seconds, connections=64, wanted=None):
    """Requests of HTTP at a constant rate, each with an id.

    Returns times of sending and latencies of those with status 200, counts by status, and how many had no answer.
    """
    latencies, counts = [], {}
    numbers = {}
    sent, received = {}, {}
    with selectors.DefaultSelector() as selector:

        def add():
            connection = connect(port)
            selector.register(connection, selectors.EVENT_READ)
            received[connection] = b""
            return connection

        idle = deque(add() for _ in range(connections))  # used in turns
        start = time.perf_counter()
        due = 0
        while (now := time.perf_counter()) < start + seconds or sent:
            if now > start + seconds + 30:
                break
            while now < start + seconds and due < (now - start) * rate:
                due += 1
                connection = idle.popleft() if idle else add()
                sent[connection] = now
                numbers[connection] = due
                connection.sendall(request.replace(b"\r\n", b"\r\nX-Request-ID: %d\r\n" % due, 1))
            wait = max(0.0, min(start + (due + 1) / rate - time.perf_counter(), 0.1))
            for key, _ in selector.select(wait):
                connection = key.fileobj
                part = connection.recv(1 << 20)
                if not part:  # the server closes what it has not heard from for some seconds
                    selector.unregister(connection)
                    idle.remove(connection)
                    continue
                received[connection] += part
                if (parts := http_parts(received[connection])) is None:
                    continue
                received[connection] = b""
                status, head, body = parts
                name = b"x-request-id: %d" % numbers.pop(connection)
                assert name in head.split(b"\r\n"), "an answer to another request"
                assert wanted is None or status != 200 or body.endswith(wanted), "an answer has other bits"
                counts[status] = counts.get(status, 0) + 1
                began = sent.pop(connection)
                if status == 200:
                    latencies.append((began - start, time.perf_counter() - began))
                elif status == 429:
                    assert b"retry-after" in head
                idle.append(connection)
        for connection in received:
            connection.close()
    return latencies, counts, len(sent)


def overload(options):
    """Goodput and latency at the server's capacity and at ten times that rate; every request must have one answer."""
    size, seconds = options.size, options.seconds
    # Much to compute, little to send: this program must be able to offer ten times as much as one processor computes.
    x = chunk_of(16, options.steps)[None]
    request = infer_request(x, ["h"])
    h = build_layer(workload_of("lstm", size, 16))(x)[1][0].tobytes()
    results = []
    with fastrnn_server("lstm", size, "--max-queue", 8, input_size=16) as (port, process):

        def offer(rate, seconds):
            results.append(open_loop(port, request, rate, seconds, wanted=h))
            return results[-1]

        probe = max(seconds / 40, 1)
        offer(options.rate or 10, probe)  # the first requests take longer
        capacity = options.rate or len(offer(200, probe)[0]) / probe
        while not options.rate:  # the highest rate, to about 7%, at which at most 1% is refused
            _, counts, _ = offer(capacity, probe)
            if counts.get(429, 0) <= 0.01 * sum(counts.values()):
                break
            capacity /= 1.07
        at_capacity, saturated = offer(capacity, seconds / 8), offer(2 * capacity, seconds / 8)
        peak = max(goodput(result, seconds / 8) for result in (at_capacity, saturated))
        before = memory(process.pid)
        result = offer(10 * capacity, seconds)
        after = memory(process.pid)
        good, p99 = goodput(result, seconds), summary(at_capacity)[1] * 1e3
        twice, late = summary(saturated)[1] * 1e3, summary(result)[1] * 1e3
        print(f"capacity: {capacity:.0f} requests a second of {options.steps} steps of LSTM {size}")
        print(f"at capacity: p99 {p99:.1f} ms, answers {at_capacity[1]}")
        print(f"twice the capacity: p99 {twice:.1f} ms; peak of goodput {peak:.0f} a second")
        print(
            f"ten times: goodput {good:.0f} a second ({good / peak:.0%}), p99 {late:.1f} ms "
            f"({late / p99:.2f} times), answers {result[1]}, memory {before:.0f} to {after:.0f} MB"
        )
        counted = metrics(port)
    answers = {status: sum(result[1].get(status, 0) for result in results) for status in (200, 429)}
    assert not any(result[2] for result in results), "a request has no answer"
    assert sum(answers.values()) == sum(sum(result[1].values()) for result in results), "a status is not 200 or 429"
    for status, outcome in ((200, "ok"), (429, "refused")):
        name = f'fastrnn_requests_total{{model="m",outcome="{outcome}",protocol="http"}}'
        assert counted.get(name, 0) == answers[status], (name, counted.get(name, 0), answers[status])
    return answers


def goodput(result, seconds):
    """Answers a second, after a start."""
    return sum(0.2 * seconds < began + latency <= seconds for began, latency in result[0]) / (0.8 * seconds)


def metrics(port):
    """The server's metrics, by name with labels."""
    text = http(port, "GET", "/metrics")[1].decode()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")}


def summary(result):
    times = [latency for _, latency in result[0]] or [float("nan")]
    return np.percentile(times, [50, 99])


def memory(pid):
    """Resident memory in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return float("nan")


def soak(options):
    """Sessions and sequences that come and go: memory stays flat, none is leaked, and metrics add up."""
    size = 128
    rng = np.random.default_rng(3)
    chunk = frame(chunk_of(size, 5).tobytes())
    x = chunk_of(size, 5)[None]
    frames = sequences = ended = 0
    limits = "--idle-seconds", options.idle_seconds, "--max-sessions", 1 << 16
    with fastrnn_server("lstm", size, *limits) as (port, process):
        connections = []
        start = time.monotonic()
        samples = []
        rest = connect(port)
        while time.monotonic() < start + options.seconds:
            if len(connections) < 100:
                connections.append(open_session(port))
            for connection in rng.permutation(len(connections))[:20]:
                ask(connections[connection], chunk)
                frames += 1
            for _ in range(int(rng.integers(0, 4))):
                connections.pop(int(rng.integers(0, len(connections)))).close() if len(connections) > 1 else None
            sequences += 1
            ends = bool(rng.integers(0, 2))
            ended += ends
            request = infer_request(x, sequence_id=sequences, sequence_start=True, sequence_end=ends)
            try:
                ask(rest, request, True)
            except ConnectionError:  # the server closes connections that were idle, as after this process was stopped
                rest.close()
                rest = connect(port)
                ask(rest, request, True)
            if not samples or time.monotonic() - samples[-1][0] > options.seconds / 20:
                samples.append((time.monotonic(), memory(process.pid)))
        for connection in connections:
            connection.close()
        rest.close()
        live = 'fastrnn_sessions_live{model="m"}'
        end = time.monotonic() + 30 + options.idle_seconds
        while (values := metrics(port))[live] and time.monotonic() < end:  # until the sequences have expired
            time.sleep(0.1)
    print(f"memory, MB: {', '.join(f'{size:.0f}' for _, size in samples)}")
    print(f"frames {frames}, sequences {sequences}")
    websocket = values['fastrnn_requests_total{model="m",outcome="ok",protocol="websocket"}']
    rest_count = values['fastrnn_requests_total{model="m",outcome="ok",protocol="http"}']
    steps = values['fastrnn_steps_total{model="m"}']
    expired = values['fastrnn_sessions_expired_total{model="m"}']
    print(f"counted: frames {websocket:.0f}, requests {rest_count:.0f}, steps {steps:.0f}, expired {expired:.0f}")
    found = (websocket, rest_count, values[live], steps, expired)
    assert found == (frames, sequences, 0, 5 * (frames + sequences), sequences - ended), found
    assert samples[-1][1] < 1.1 * samples[len(samples) // 4][1] + 10, "memory grows"


def shutdowns(options):
    """SIGTERM while sequences run, again and again: each goes on where its last answer left it."""
    size = 64
    x = chunk_of(size, 4000)
    layer = build_layer(workload_of("lstm", size))
    wanted = layer(x[None])[0][0]
    at = dict.fromkeys(range(1, 17), 0)
    answered = refused = 0
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "m.safetensors"
        layer.save(path)
        for _ in range(options.count):
            port = free_port()
            command = [sys.executable, "-m", "fastrnn", "serve", f"m={path}", "--port", str(port), "--grpc-port", "0"]
            with server([*command, "--snapshot-dir", directory, "--log-level", "error"], port) as process:
                connections = {number: connect(port) for number in at}
                end = time.monotonic() + 0.2
                stopped = False
                while connections:
                    if not stopped and time.monotonic() > end:
                        process.send_signal(signal.SIGTERM)
                        stopped = True
                    for number, connection in list(connections.items()):
                        first = at[number] % 4000
                        request = infer_request(
                            x[None, first : first + 1], sequence_id=number, sequence_start=first == 0
                        )
                        try:
                            status, _, body = ask(connection, request, True)
                        except OSError:
                            status = 0  # the connection was closed before the request was read
                        if status == 0 and not stopped:  # as after this process was stopped for some seconds
                            connection.close()
                            connections[number] = connect(port)
                        elif status == 200:
                            assert body.endswith(wanted[first].tobytes()), (number, first)
                            at[number] += 1
                            answered += 1
                        else:
                            assert stopped and status in (0, 503), status
                            refused += 1
                            connections.pop(number).close()
                assert process.wait(30) == 0
    print(f"{options.count} stops, {answered} answers in order, {refused} refused, none lost")
    return answered


@contextlib.contextmanager
def ray_fleet(cell, size):
    """Ray Serve on all processors; yields the ports of HAProxy and of Ray's own proxy, and what sets the replicas."""
    ports = free_port(), free_port()
    os.environ |= {  # which Ray reads when it is imported
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(ports[1]),
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
    }
    import ray
    from ray import serve

    from fastrnn import ray as fray

    options = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
    ray.init(num_cpus=4, object_store_memory=100 << 20, **options)
    deployment = {"ray_actor_options": {"num_cpus": 1}, "logging_config": {"enable_access_log": False}}
    layer = build_layer(workload_of(cell, size))
    try:
        serve.start(http_options={"port": ports[0]})
        yield *ports, lambda count: serve.run(fray.application({"m": layer}, num_replicas=count, deployment=deployment))
    finally:
        serve.shutdown()
        ray.shutdown()


def processor_seconds(part):
    """Processor time so far of the processes whose command line has a text, by process."""
    found = {}
    for directory in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            if directory.name.isdigit() and part in (directory / "cmdline").read_bytes().decode(errors="replace"):
                fields = (directory / "stat").read_text().rpartition(")")[2].split()
                found[directory.name] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return found


def ray_cost(options):
    """What Ray costs: sessions in a closed loop on a server alone, behind HAProxy, and behind Ray's own proxy.

    Without affinity: Ray's processes and the load share this machine's processors. The processor times by chunk are
    the parameters of bench/fleet.py, whose result is compared with these rates.
    """
    os.sched_setaffinity(0, range(os.cpu_count()))
    cell, size, steps = "gru", 256, 10
    chunk = chunk_of(size, steps)
    replicas = "ray::ServeReplica:default:fastrnn"
    print(f"{cell} {size}, {steps} steps a chunk")
    columns = ("server", "sessions", "p50 ms", "p99 ms", "chunks/s", "load us", "server us", "proxy us")
    print(" ".join(f"{column:>12}" for column in columns))

    def row(name, port, *parts):
        for sessions in (1, 64):
            own = time.process_time()
            before = [processor_seconds(part) for part in parts]
            latencies, rate, answered = closed_loop(port, sessions, chunk, options.seconds)
            spent = [time.process_time() - own]
            for part, begun in zip(parts, before, strict=True):
                spent.append(sum(seconds - begun.get(pid, 0.0) for pid, seconds in processor_seconds(part).items()))
            p50, p99 = np.percentile(latencies, [50, 99]) * 1e3
            cells = [f"{name:>12}", f"{sessions:>12}", *(f"{value:>12.2f}" for value in (p50, p99)), f"{rate:>12.0f}"]
            print(" ".join([*cells, *(f"{1e6 * seconds / answered:>12.0f}" for seconds in spent)]), flush=True)

    with fastrnn_server(cell, size) as (port, process):
        os.sched_setaffinity(process.pid, range(os.cpu_count()))
        row("alone", port, f"--port\0{port}\0")
    with ray_fleet(cell, size) as (haproxy, proxy, scale):
        for count in (1, 2):
            scale(count)
            time.sleep(3)  # until HAProxy has heard of the replicas; sessions before that stay with Ray's own proxy
            row(f"HAProxy, {count}", haproxy, replicas, "/haproxy\0")
            row(f"Ray, {count}", proxy, replicas, "ray::ProxyActor")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    defaults = {"load": 5, "latency": 3, "overload": 60, "soak": 600, "shutdowns": 0}
    for name, seconds in defaults.items():
        command = commands.add_parser(name)
        command.add_argument("--seconds", type=float, default=seconds)
        command.add_argument("--count", type=int, default=100, help="of shutdowns")
        command.add_argument("--cases", type=int, nargs="*", help="their numbers, from 0; all if not given")
        command.add_argument("--idle-seconds", type=float, default=3, help="of soak: when a session expires")
        command.add_argument("--size", type=int, default=1024)
        command.add_argument("--steps", type=int, default=100)
        command.add_argument(
            "--rate", type=float, help="the server's capacity in requests a second; measured first if not given"
        )
        command.set_defaults(run=globals()[name])
    behind = commands.add_parser("ray")
    behind.add_argument("--seconds", type=float, default=5)
    behind.set_defaults(run=ray_cost)
    served = commands.add_parser("plain")
    served.add_argument("cell")
    served.add_argument("size", type=int)
    served.add_argument("port", type=int)
    served.set_defaults(run=lambda options: plain(options.cell, options.size, options.port))
    options = parser.parse_args()
    if options.run is not plain and "cell" not in options:
        os.sched_setaffinity(0, {LOAD_CORE})
    options.run(options)


if __name__ == "__main__":
    main()
