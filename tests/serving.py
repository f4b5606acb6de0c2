"""A server in a process of its own, for tests."""

import contextlib
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request

import numpy as np
import pytest

import fastrnn

LINE = re.compile(r"fastrnn serve: http ([\d.]+):(\d+), (?:grpc ([\d.]+):(\d+), )?models (.*)\n")


def random_layer(kind, input_size, hidden_size, seed=0, bidirectional=False):
    rng = np.random.default_rng(seed)
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind] * hidden_size
    shapes = {"weight_ih": (gates, input_size), "weight_hh": (gates, hidden_size), "bias_ih": gates, "bias_hh": gates}
    weights = {
        f"{name}_l0{end}": rng.uniform(-0.5, 0.5, shape).astype("f4")
        for end in (("", "_reverse") if bidirectional else ("",))
        for name, shape in shapes.items()
    }
    options = {"nonlinearity": "tanh"} if kind == "RNN" else {}
    return getattr(fastrnn, kind).from_state_dict(weights, **options)


def models():
    """One model of each kind that is served differently."""
    rng = np.random.default_rng(7)

    def random(*shape):
        return rng.uniform(-0.5, 0.5, shape).astype("f4")

    return {
        "speech": random_layer("LSTM", 5, 33),
        "tones": random_layer("GRU", 3, 16, seed=1),
        "tags": fastrnn.Sequential(
            fastrnn.Embedding(random(11, 6)), random_layer("GRU", 6, 17, seed=2), fastrnn.Linear(random(4, 17))
        ),
        "both": random_layer("LSTM", 4, 9, seed=3, bidirectional=True),
        "last": fastrnn.Sequential(random_layer("LSTM", 4, 9, seed=4), fastrnn.Last()),
        "down": fastrnn.Sequential(
            fastrnn.Conv1d(random(7, 5, 3), padding="causal", stride=2), random_layer("LSTM", 7, 8, seed=5)
        ),
        "wide": random_layer("LSTM", 64, 256, seed=6),
    }


def save(directory, names=None):
    """Write models to files; returns them, and arguments for `Server`."""
    chosen = {name: model for name, model in models().items() if names is None or name in names}
    for name, model in chosen.items():
        model.save(directory / f"{name}.safetensors")
    return chosen, [f"{name}={directory / name}.safetensors" for name in chosen]


def fixtures(*options):
    """The fixtures of a test module: `models` in files, `served` by their names, one `server` with these options."""

    @pytest.fixture(scope="module")
    def models(tmp_path_factory):
        return save(tmp_path_factory.mktemp("models"))

    @pytest.fixture(scope="module")
    def served(models):
        return models[0]

    @pytest.fixture(scope="module")
    def server(models):
        with Server(*models[1], *options) as server:
            yield server
            assert server.stop() == 0, server.log
            assert '"error"' not in server.log

    return models, served, server


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """``fastrnn serve`` on free ports. Its log is in `log` when it has ended."""

    def __init__(self, *arguments, http_port=0):
        command = [sys.executable, "-m", "fastrnn", "serve", *map(str, arguments)]
        command += ["--port", str(http_port), "--grpc-port", "0"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self._lines = []
        self._reader = threading.Thread(target=lambda: self._lines.extend(self.process.stderr), daemon=True)
        self._reader.start()
        self.line = self.process.stdout.readline()
        match = LINE.fullmatch(self.line)
        if match is None:
            self.kill()
            raise AssertionError(f"the first line is {self.line!r}; stderr: {self.log}")
        self.http, self.grpc = f"{match[1]}:{match[2]}", f"{match[3]}:{match[4]}"
        self.port = int(match[2])

    @property
    def log(self):
        self._reader.join(10)
        return "".join(self._lines)

    def stop(self, timeout=20):
        """Send SIGTERM; returns the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout)
        self._close()
        return code

    def kill(self):
        self.process.kill()
        self.process.wait(20)
        self._close()

    def _close(self):
        self._reader.join(10)
        self.process.stdout.close()
        self.process.stderr.close()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        with contextlib.suppress(Exception):
            self.stop()
        if self.process.poll() is None:
            self.kill()

    def request(self, path, body=None, headers=None, method=None):
        """Status, headers and body of a request of HTTP."""
        data = json.dumps(body).encode() if isinstance(body, dict | list) else body
        request = urllib.request.Request(f"http://{self.http}{path}", data, headers or {}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=20) as response:
                return response.status, response.headers, response.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers, error.read()

    def infer(self, model, x, parameters=None, headers=None, **fields):
        """Status and content of a JSON request with x as a list."""
        datatype = "FP32" if x.dtype.kind == "f" else "INT64"
        tensor = {"name": "x", "datatype": datatype, "shape": list(x.shape), "data": x.ravel().tolist()}
        inputs = [tensor, *fields.pop("inputs", [])]
        body = {"inputs": inputs, "parameters": parameters or {}, **fields}
        status, _, content = self.request(f"/v2/models/{model}/infer", body, headers)
        return status, json.loads(content)

    def metrics(self, headers=None):
        """Values by name and labels, as in Prometheus's text."""
        status, _, text = self.request("/metrics", headers=headers)
        assert status == 200
        lines = [line.rpartition(" ") for line in text.decode().splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in lines}


def output(content, name="y"):
    """A tensor of a JSON answer."""
    for tensor in content["outputs"]:
        if tensor["name"] == name:
            return np.array(tensor["data"], "f4").reshape(tensor["shape"])
    raise AssertionError(f"there is no {name}")
