"""The process of ``fastrnn serve``: start, tokens and tenants, expiry, stop, restart, and what survives it."""

import base64
import json
import queue
import signal
import socket
import subprocess
import sys
import threading
import time

import grpc
import numpy as np
import pytest
import serving
from test_serve_rest import random_x
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from fastrnn import cli, extras
from fastrnn.serve.grpc_messages import CLASSES

ALICE, BOB = "alice-0123456789", "bob-0123456789"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return serving.save(tmp_path_factory.mktemp("models"), ["speech", "tones", "wide"])


@pytest.fixture(scope="module")
def served(models):
    return models[0]


@pytest.fixture(scope="module")
def arguments(models):
    return models[1]


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


def close_code(connection):
    with pytest.raises(ConnectionClosed) as closed:
        connection.recv(20)
    return closed.value.rcvd.code


# Start


def test_what_cannot_start_says_so_on_one_line(arguments, tmp_path, capsys):
    """Exit code 2 before any port is open."""
    (tmp_path / "tokens").write_text("# none\n\n")
    (tmp_path / "spaces").write_text("two words\n")
    (tmp_path / "bad").write_bytes(b"nothing that fastrnn reads")
    good = arguments[0]
    cases = {
        (): "required: NAME=FILE",
        ("speech",): "wanted NAME=FILE",
        (f"speech={tmp_path}/none",): "No such file",
        (f"speech={tmp_path}/bad",): "bad",
        (good, good): "given twice",
        (good.replace("speech=", "a/b="),): "is no name for a model",
        (good, "--port", "70000"): "wanted 0 to 65535",
        (good, "--max-queue", "0"): "wanted a positive number",
        (good, "--idle-seconds", "never"): "invalid float value",
        (good, "--nonsense"): "unrecognized arguments: --nonsense",
        (good, "--token-file", f"{tmp_path}/none"): "No such file",
        (good, "--token-file", f"{tmp_path}/tokens"): "has no token",
        (good, "--token-file", f"{tmp_path}/spaces"): "space",
        (good, "--host", "0.0.0.0"): "wanted --token-file, or --no-auth",
        (good, "--snapshot-dir", f"{tmp_path}/none/none"): "is no directory",
        (good, "--snapshot-dir", f"{tmp_path}/bad"): "exists",
        (good, "--port", "8001"): "--port and --grpc-port are both 8001",
    }
    for case, text in cases.items():
        try:
            code = cli.main(["serve", *case])
        except SystemExit as stop:
            code = stop.code
        out, err = capsys.readouterr()
        assert (code, out, err.count("\n")) == (2, "", 1), (case, out, err)
        assert text in err, case


@pytest.mark.parametrize("flag", ["--port", "--grpc-port"])
def test_a_port_that_is_taken(arguments, flag):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ports = {"--port": "0", "--grpc-port": "0", flag: str(taken.getsockname()[1])}
        command = [sys.executable, "-m", "fastrnn", "serve", arguments[0]]
        command += [text for pair in ports.items() for text in pair]
        result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout) == (2, ""), result.stderr
    assert result.stderr.startswith("fastrnn: cannot listen on 127.0.0.1, port ") and result.stderr.count("\n") == 1


def test_names_of_missing_packages(monkeypatch, arguments, capsys):
    monkeypatch.setattr(extras, "missing", lambda modules: [name for name in modules if name in ("uvicorn", "grpc")])
    assert cli.main(["serve", *arguments]) == 2
    assert "needs the package uvicorn, not installed (extra 'serve'" in capsys.readouterr().err


# Tenants


@pytest.fixture(scope="module")
def guarded(arguments, tmp_path_factory):
    path = tmp_path_factory.mktemp("tokens") / "tokens"
    path.write_text(f"# two tenants\n{ALICE}\n\n{BOB}\n")
    with serving.Server(*arguments, "--token-file", path, "--idle-seconds", "0.7", "--max-sessions", "3") as server:
        yield server
        assert server.stop() == 0, server.log


def test_requests_without_a_token(guarded):
    for path in ("/v2", "/metrics", "/v2/models/speech", "/v2/models/speech/ready", "/v2/models/none"):
        for headers in ({}, bearer("wrong"), bearer(""), {"Authorization": f"Basic {ALICE}"}, bearer(ALICE[:-1])):
            status, found, content = guarded.request(path, headers=headers)
            assert (status, found["www-authenticate"]) == (401, "Bearer"), (path, headers)
            assert list(json.loads(content)) == ["error"]
    for path in ("/", "/v2/health/live", "/v2/health/ready"):
        assert guarded.request(path)[0] == 200
    for path in ("/v2", "/metrics", "/v2/models/speech"):
        assert guarded.request(path, headers=bearer(BOB))[0] == 200
    for path in ("/none", "/v2/models", "/metrics", "/v2/models/none/none"):  # unknown paths and methods
        status, found, content = guarded.request(path, b"")
        assert (status, found["www-authenticate"], list(json.loads(content))) == (401, "Bearer", ["error"]), path
        assert guarded.request(path, b"", headers=bearer(BOB))[0] in (404, 405)
    for path in ("/", "/v2/health/live", "/v2/health/none"):
        assert guarded.request(path, b"")[0] in (404, 405)
    assert guarded.infer("speech", random_x("speech", (1, 2)))[0] == 401
    assert guarded.request("/v2/models/none/infer", {})[0] == 401
    with grpc.insecure_channel(guarded.grpc) as channel:
        for method in ("ServerMetadata", "ModelMetadata", "ModelReady", "ModelInfer"):
            with pytest.raises(grpc.RpcError) as error:
                channel.unary_unary(f"/inference.GRPCInferenceService/{method}")(b"", timeout=20)
            assert error.value.code() == grpc.StatusCode.UNAUTHENTICATED
        with pytest.raises(grpc.RpcError) as error:
            list(channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")(iter([b""]), timeout=20))
        assert error.value.code() == grpc.StatusCode.UNAUTHENTICATED
        for method in ("ServerLive", "ServerReady"):
            assert channel.unary_unary(f"/inference.GRPCInferenceService/{method}")(b"", timeout=20) == b"\x08\x01"
        metadata = (("authorization", f"Bearer {ALICE}"),)
        assert channel.unary_unary("/inference.GRPCInferenceService/ServerMetadata")(b"", timeout=20, metadata=metadata)


def test_tokens_of_websockets(guarded):
    url = f"ws://{guarded.http}/v2/models/tones/stream"

    def encoded(token):
        return "bearer." + base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")

    for options in (
        {},
        {"additional_headers": bearer("x")},
        {"subprotocols": ["fastrnn", encoded("x")]},
        {"subprotocols": ["bearer.%"]},
    ):
        with pytest.raises(InvalidStatus) as error:
            connect(url, **options)
        assert error.value.response.status_code == 401
        assert error.value.response.headers["www-authenticate"] == "Bearer"
    with pytest.raises(InvalidStatus) as error:
        connect(f"{url}?token={ALICE}")
    assert error.value.response.status_code == 401
    with connect(url, subprotocols=["fastrnn", encoded(BOB)]) as connection:
        assert connection.subprotocol == "fastrnn"
    with connect(url, additional_headers=bearer(ALICE)) as connection:
        assert connection.subprotocol is None


def test_tenants_have_their_own_sequences(guarded, served):
    xs = {token: random_x("tones", (1, 20), seed=len(token)) for token in (ALICE, BOB)}
    ys = {token: [] for token in xs}
    for first in range(0, 20, 5):
        for token, x in xs.items():
            parameters = {"sequence_id": 1, "sequence_start": first == 0, "sequence_end": first == 15}
            status, content = guarded.infer("tones", x[:, first : first + 5], parameters, bearer(token))
            assert status == 200
            ys[token].append(serving.output(content))
    for token, x in xs.items():
        assert np.concatenate(ys[token], axis=1).tobytes() == served["tones"](x)[0].tobytes()
    guarded.infer("tones", xs[ALICE], {"sequence_id": 2, "sequence_start": True}, bearer(ALICE))
    status, content = guarded.infer("tones", xs[BOB], {"sequence_id": 2}, bearer(BOB))
    assert status == 404 and "has not started" in content["error"]
    assert guarded.infer("tones", xs[ALICE], {"sequence_id": 2, "sequence_end": True}, bearer(ALICE))[0] == 200


def test_sessions_expire(guarded):
    x = random_x("tones", (1, 2))
    before = guarded.metrics(bearer(BOB))
    for number in (1, 2):
        assert guarded.infer("tones", x, {"sequence_id": number, "sequence_start": True}, bearer(ALICE))[0] == 200
    with connect(f"ws://{guarded.http}/v2/models/tones/stream", additional_headers=bearer(ALICE)) as connection:
        connection.recv(20)
        assert guarded.infer("tones", x, {"sequence_id": 3, "sequence_start": True}, bearer(ALICE))[0] == 429
        for _ in range(4):  # one is used, the other is not
            time.sleep(0.25)
            assert guarded.infer("tones", x, {"sequence_id": 1}, bearer(ALICE))[0] == 200
        status, content = guarded.infer("tones", x, {"sequence_id": 2}, bearer(ALICE))
        assert status == 404 and "has expired" in content["error"]
        message = json.loads(connection.recv(20))
        assert message["type"] == "error" and "expired" in message["message"]
        assert close_code(connection) == 1008
    status, content = guarded.infer("tones", x, {"sequence_id": 2}, bearer(BOB))
    assert status == 404 and "has not started" in content["error"]  # it was another's
    after = guarded.metrics(bearer(BOB))
    assert (
        after['fastrnn_sessions_expired_total{model="tones"}'] - before['fastrnn_sessions_expired_total{model="tones"}']
        == 2
    )
    assert guarded.infer("tones", x, {"sequence_id": 2, "sequence_start": True}, bearer(ALICE))[0] == 200


# Stop and restart


def test_stop_and_restart_go_on_bit_for_bit(arguments, served, tmp_path):
    x = random_x("speech", (1, 60))
    y, _ = served["speech"](x)
    ids = [7, "7", 2**64 - 1, "a" * 256]
    with serving.Server(*arguments, "--snapshot-dir", tmp_path) as server:
        for sequence_id in ids:
            assert server.infer("speech", x[:, :25], {"sequence_id": sequence_id, "sequence_start": True})[0] == 200
        connection = connect(f"ws://{server.http}/v2/models/speech/stream")
        connection.recv(20)
        connection.send(x[0, :25].tobytes())
        connection.recv(20)
        assert server.stop() == 0
        saved = json.loads(connection.recv(20))
        assert saved["type"] == "snapshot" and close_code(connection) == 1001
    files = sorted(tmp_path.iterdir())
    assert len(files) == 3 and all(path.stat().st_mode & 0o77 == 0 for path in files)
    with serving.Server(*arguments, "--snapshot-dir", tmp_path) as server:
        assert not list(tmp_path.iterdir())
        for sequence_id in ids:
            status, content = server.infer("speech", x[:, 25:], {"sequence_id": sequence_id})
            assert status == 200 and serving.output(content).tobytes() == y[:, 25:].tobytes()
        with connect(f"ws://{server.http}/v2/models/speech/stream") as connection:
            connection.recv(20)
            connection.send(json.dumps({"type": "restore", "data": saved["data"]}))
            assert json.loads(connection.recv(20)) == {"type": "restored"}
            connection.send(x[0, 25:].tobytes())
            assert connection.recv(20) == y[0, 25:].tobytes()
        server.kill()
    # After SIGKILL nothing goes on from an older state.
    with serving.Server(*arguments, "--snapshot-dir", tmp_path) as server:
        status, content = server.infer("speech", x, {"sequence_id": 7})
        assert status == 404 and "has not started" in content["error"]


def test_sessions_go_to_the_same_model_and_tenant_alone(arguments, served, tmp_path):
    tokens, others = tmp_path / "tokens", tmp_path / "others"
    tokens.write_text(f"{ALICE}\n{BOB}\n")
    others.write_text(f"{BOB}\n")
    directory = tmp_path / "sessions"
    x = random_x("tones", (1, 3))
    with serving.Server(*arguments, "--token-file", tokens, "--snapshot-dir", directory) as server:
        for token in (ALICE, BOB):
            assert server.infer("tones", x, {"sequence_id": 1, "sequence_start": True}, bearer(token))[0] == 200
        assert server.stop() == 0
    assert not any(ALICE in path.read_text() for path in directory.iterdir())
    damaged = next(path for path in directory.iterdir() if path.name.startswith("speech"))
    damaged.write_bytes(b"\xff{" * 50)
    other_model = serving.random_layer("GRU", 3, 16, seed=99)
    other_model.save(tmp_path / "tones.safetensors")
    changed = [argument for argument in arguments if "tones=" not in argument] + [f"tones={tmp_path}/tones.safetensors"]
    with serving.Server(*changed, "--token-file", tokens, "--snapshot-dir", directory) as server:
        assert server.infer("tones", x, {"sequence_id": 1}, bearer(BOB))[0] == 404
        assert server.stop() == 0
        assert "sessions not restored" in server.log
    for path in directory.glob("tones-*"):
        content = json.loads(path.read_text())
        content["sessions"] = [{**entry, "id": 2, "snapshot": "AAAA"} for entry in content["sessions"]] + content[
            "sessions"
        ]
        path.write_text(json.dumps(content))
    with serving.Server(*arguments, "--token-file", others, "--snapshot-dir", directory) as server:
        status, content = server.infer("tones", x, {"sequence_id": 1}, bearer(BOB))
        wanted = served["tones"](np.concatenate([x, x], axis=1))[0][:, 3:]
        assert status == 200 and serving.output(content).tobytes() == wanted.tobytes()
        assert server.infer("tones", x, {"sequence_id": 1}, bearer(ALICE))[0] == 401
        assert server.infer("tones", x, {"sequence_id": 2}, bearer(BOB))[0] == 404


def test_a_stop_finishes_what_runs_and_refuses_the_rest(arguments, served):
    """A long request runs on; meanwhile the server is not ready, and new requests get 503."""
    x = random_x("wide", (30, 1500))
    body = json.dumps(
        {
            "inputs": [
                {"name": "x", "datatype": "FP32", "shape": list(x.shape), "parameters": {"binary_data_size": x.nbytes}}
            ],
            "outputs": [{"name": "h"}],
        }
    ).encode()
    limits = ["--max-body-bytes", "100000000"]
    with serving.Server(*arguments, *limits) as server:
        results = []

        def ask():
            header = {"Inference-Header-Content-Length": str(len(body))}
            results.append(server.request("/v2/models/wide/infer", body + x.tobytes(), header))

        thread = threading.Thread(target=ask)
        thread.start()
        deadline = time.monotonic() + 20
        while server.metrics()['fastrnn_batch_rows_count{model="wide"}'] == 0:
            assert time.monotonic() < deadline
        with (
            grpc.insecure_channel(server.grpc) as channel,
            connect(f"ws://{server.http}/v2/models/tones/stream") as connection,
        ):
            connection.recv(20)
            live = channel.unary_unary("/inference.GRPCInferenceService/ServerReady")
            assert live(b"", timeout=20) == b"\x08\x01"
            requests = queue.SimpleQueue()
            stream = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
            answers = stream(iter(requests.get, None), timeout=20)
            requests.put(b"")
            assert b"there is no model" in next(answers)
            server.process.send_signal(signal.SIGTERM)
            with pytest.raises(grpc.RpcError) as ended:
                next(answers)
            assert ended.value.code() == grpc.StatusCode.UNAVAILABLE
            assert ended.value.details() == "the server is shutting down"
            requests.put(None)
            assert json.loads(connection.recv(20))["type"] == "snapshot"
            assert close_code(connection) == 1001
            status, _, content = server.request("/v2/health/ready")
            assert (status, json.loads(content)) == (503, {"ready": False})
            assert server.request("/v2/health/live")[0] == 200
            status, content = server.infer("tones", random_x("tones", (1, 2)))
            assert status == 503 and "shutting down" in content["error"]
            assert live(b"", timeout=20) == b""
            with pytest.raises(InvalidStatus) as error:
                connect(f"ws://{server.http}/v2/models/tones/stream")
            assert error.value.response.status_code == 503
            with pytest.raises(grpc.RpcError) as refused:
                message = b"\n\x05tones"
                channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")(message, timeout=20)
            assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
            assert dict(refused.value.trailing_metadata())["retry-after"] == "1"
        thread.join(60)
        status, _, content = results[0]
        assert status == 200
        wanted = served["wide"](x)[1][0]
        assert json.loads(content)["outputs"][0]["data"] == wanted.ravel().tolist()
        assert server.process.wait(30) == 0


def test_calls_of_grpc_that_meet_a_stop_are_told_so(arguments):
    """Those that are on their way when the server stops would else be cancelled."""
    request = CLASSES["ModelInferRequest"](model_name="tones", raw_input_contents=[bytes(12)])
    request.inputs.add(name="x", datatype="FP32", shape=(1, 1, 3))
    ends = []

    def ask(address):
        with grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
            while True:
                try:
                    infer(request.SerializeToString(), timeout=20)
                except grpc.RpcError as error:
                    ends.append(error.code())
                    return

    with serving.Server(*arguments) as server:
        threads = [threading.Thread(target=ask, args=(server.grpc,)) for _ in range(6)]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 20
        while server.metrics().get('fastrnn_requests_total{model="tones",outcome="ok",protocol="grpc"}', 0) < 20:
            assert time.monotonic() < deadline and not ends
        assert server.stop() == 0
        for thread in threads:
            thread.join(20)
    assert ends == [grpc.StatusCode.UNAVAILABLE] * 6


def test_a_second_signal_stops_at_once(arguments):
    x = random_x("wide", (200, 2000))
    body = {
        "inputs": [
            {"name": "x", "datatype": "FP32", "shape": list(x.shape), "parameters": {"binary_data_size": x.nbytes}}
        ],
        "outputs": [{"name": "h"}],
    }
    text = json.dumps(body).encode()
    with (
        serving.Server(*arguments, "--max-body-bytes", "500000000") as server,
        socket.create_connection(("127.0.0.1", server.port)) as raw,
    ):
        head = f"POST /v2/models/wide/infer HTTP/1.1\r\nHost: a\r\nContent-Length: {len(text) + x.nbytes}\r\n"
        raw.sendall(f"{head}Inference-Header-Content-Length: {len(text)}\r\n\r\n".encode() + text + x.tobytes())
        deadline = time.monotonic() + 20
        while server.metrics()['fastrnn_batch_rows_count{model="wide"}'] == 0:
            assert time.monotonic() < deadline
        server.process.send_signal(signal.SIGTERM)
        while server.request("/v2/health/ready")[0] != 503:
            assert time.monotonic() < deadline
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(5) != 0
