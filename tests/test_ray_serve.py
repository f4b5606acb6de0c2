"""`fastrnn.ray.application` on replicas of this machine: sessions stay, move or are lost, with the bits of a stream."""

import asyncio
import base64
import contextlib
import json
import os
import runpy
from pathlib import Path

import numpy as np
import pytest

ray = pytest.importorskip("ray", reason="needs the package ray")
pytest.importorskip("websockets", reason="needs the package websockets")
triton = pytest.importorskip("tritonclient.http", reason="needs the package tritonclient")

import aiohttp  # noqa: E402
import websockets  # noqa: E402
from ray import serve  # noqa: E402
from ray.serve.context import _get_global_client  # noqa: E402
from ray.serve.schema import ServeDeploySchema  # noqa: E402
from serving import free_port, random_layer  # noqa: E402

pytestmark = pytest.mark.slow  # a cluster starts

CHUNK = 5  # steps
WIDTH = 6


class Fleet:
    """The application on some replicas."""

    def __init__(self, directory):
        self.layer = random_layer("GRU", WIDTH, 33)
        self.layer.save(directory / "tones.safetensors")
        self.snapshots = directory / "snapshots"
        self.arguments = {
            "models": {"tones": f"file://{directory}/tones.safetensors"},
            "snapshots": str(self.snapshots),
            "options": {"idle_seconds": 100},
            "deployment": {"ray_actor_options": {"num_cpus": 0.5}, "health_check_period_s": 1},
        }
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"  # HAProxy's
        self.proxy_address = f"127.0.0.1:{os.environ['RAY_SERVE_FALLBACK_PROXY_HTTP_PORT']}"  # of Ray's own proxy
        serve.start(http_options={"port": self.port})

    def scale(self, num_replicas):
        """Have so many replicas, as a configuration file does; those that stay are not started again."""
        application = {
            "name": "default",
            "route_prefix": "/",
            "import_path": "fastrnn.ray.deployment:build",
            "args": self.arguments,
            "deployments": [{"name": "fastrnn", "num_replicas": num_replicas}],
        }
        config = ServeDeploySchema.model_validate({"applications": [application]})
        _get_global_client().deploy_apps(config, _blocking=True)
        client = triton.InferenceServerClient(self.address)
        x = triton.InferInput("x", [1, 1, WIDTH], "FP32")
        x.set_data_from_numpy(np.zeros((1, 1, WIDTH), "f4"))
        for name in map(str, range(8)):
            while True:  # until the proxy sends sessions where they belong
                options = {"sequence_id": name, "sequence_start": True, "sequence_end": True}
                try:
                    client.infer("tones", [x], headers={"x-session-id": name}, **options)
                except triton.InferenceServerException as error:
                    assert error.status() == "503", error
                else:
                    break
        client.close()

    def moved(self):
        """Whether sequences have ever moved."""
        return self.snapshots.exists() and any(self.snapshots.iterdir())

    def replicas(self):
        """The names of the actors."""
        names = [actor["name"] for actor in ray.util.list_named_actors(all_namespaces=True)]
        return [name for name in names if name.startswith("SERVE_REPLICA::default#fastrnn#")]


@pytest.fixture(scope="module")
def fleet(ray_cluster, tmp_path_factory):
    yield Fleet(tmp_path_factory.mktemp("fleet"))
    serve.shutdown()


class Client:
    """A client of one sequence, which knows what the answers must be.

    With `cut` a request may lose its answer, because its replica is killed. It is sent again; had a living replica run
    it twice, the next answer would have other bits.
    """

    cut = False

    def __init__(self, fleet, http, name, rng):
        self.url = f"http://{fleet.address}/v2/models/tones/infer"
        self.http, self.name, self.rng = http, name, rng
        self.layer = fleet.layer
        self.lost = False
        self.begin_anew()
        self.answers = 0

    def begin_anew(self):
        self.begun, self.stream = False, self.layer.stream()

    async def step(self):
        """Send a chunk; a refusal with 503 is tried again. Returns whether there was an answer; if not, it was 404."""
        x = self.rng.standard_normal((1, CHUNK, WIDTH)).astype("f4")
        tensor = {"name": "x", "datatype": "FP32", "shape": x.shape, "parameters": {"binary_data_size": x.nbytes}}
        parameters = {"sequence_id": self.name, "sequence_start": not self.begun, "binary_data_output": True}
        head = json.dumps({"inputs": [tensor], "parameters": parameters}).encode()
        headers = {"Inference-Header-Content-Length": str(len(head)), "x-session-id": self.name}
        for _ in range(100):
            try:
                async with self.http.post(self.url, data=head + x.tobytes(), headers=headers) as response:
                    body = await response.read()
                    status, length = response.status, response.headers.get("Inference-Header-Content-Length")
            except aiohttp.ClientError:
                assert self.cut
                status = 503
            if status != 503 and not (status == 500 and self.cut):
                break
            await asyncio.sleep(0.1)
        if status == 404:
            assert self.begun and "its replica was lost" in json.loads(body)["error"]
            self.lost = True
            return False
        assert status == 200, body
        self.begun = True
        self.answers += 1
        assert body[int(length) :] == self.stream.run(x).tobytes(), (self.name, self.answers)
        return True


def clients_of(fleet, http, rng, prefix, count):
    return [
        Client(fleet, http, f"{prefix} {number}", np.random.default_rng(rng.integers(1 << 60)))
        for number in range(count)
    ]


@pytest.mark.parametrize("through", ["haproxy", "proxy"])
def test_tritonclient_and_websockets_keep_their_replica(fleet, rng, through):
    fleet.scale(2)
    address = fleet.address if through == "haproxy" else fleet.proxy_address
    client = triton.InferenceServerClient(address)
    assert client.is_server_ready() and "sequence" in client.get_server_metadata()["extensions"]
    chunks = {f"s{number}": rng.standard_normal((3, 1, CHUNK, WIDTH)).astype("f4") for number in range(12)}
    streams = {name: fleet.layer.stream() for name in chunks}

    def infer(name, step, headers):
        x = triton.InferInput("x", [1, CHUNK, WIDTH], "FP32")
        x.set_data_from_numpy(chunks[name][step])
        return client.infer(
            "tones", [x], sequence_id=name, sequence_start=step == 0, sequence_end=step == 2, headers=headers
        ).as_numpy("y")

    for step in range(3):
        for name in chunks:
            y = infer(name, step, {"x-session-id": name})
            assert y.tobytes() == streams[name].run(chunks[name][step]).tobytes(), (name, step)
    with pytest.raises(triton.InferenceServerException, match="sequences need the header x-session-id"):
        infer("s0", 0, {})
    with pytest.raises(triton.InferenceServerException, match="is not known"):
        infer("s0", 1, {"x-session-id": "s0"})
    whole = triton.InferInput("x", [1, CHUNK, WIDTH], "FP32")
    whole.set_data_from_numpy(chunks["s0"][0])
    assert client.infer("tones", [whole]).as_numpy("y").tobytes() == fleet.layer(chunks["s0"][0])[0].tobytes()
    client.close()

    async def stream(number):
        own = np.random.default_rng(number)
        private = fleet.layer.stream()
        async with websockets.connect(f"ws://{address}/v2/models/tones/stream") as socket:
            assert json.loads(await socket.recv())["input_size"] == WIDTH
            for _ in range(5):
                x = own.standard_normal((1, CHUNK, WIDTH)).astype("f4")
                await socket.send(x.tobytes())
                assert await socket.recv() == private.run(x).tobytes()

    async def streams_together():
        await asyncio.gather(*map(stream, range(8)))

    asyncio.run(streams_together())


def test_a_replica_is_killed_under_load(fleet, rng):
    """The sessions of the other go on bit for bit, also when a new one joins; those of the lost one are told why."""

    async def run():
        x = rng.standard_normal((20, 1, CHUNK, WIDTH)).astype("f4")
        private = fleet.layer.stream()
        wanted = [private.run(chunk).tobytes() for chunk in x]
        joined = asyncio.Event()
        async with aiohttp.ClientSession() as http:
            clients = clients_of(fleet, http, rng, "killed", 50)
            sockets = [await websockets.connect(f"ws://{fleet.address}/v2/models/tones/stream") for _ in range(8)]
            for socket in sockets:
                await socket.recv()
            loads = [asyncio.ensure_future(load(client, joined)) for client in clients]
            streams = [asyncio.ensure_future(stream(socket, x, wanted)) for socket in sockets]
            await asyncio.sleep(0.5)
            assert not fleet.moved()
            ray.kill(ray.get_actor(fleet.replicas()[0], namespace="serve"))
            assert 0 < sum(await asyncio.gather(*streams)) < 8
            while not fleet.moved():  # to the replica that Ray starts
                await asyncio.sleep(0.1)
            await asyncio.sleep(1)
            joined.set()
            times_lost = await asyncio.gather(*loads)
            assert 0 < sum(times_lost) < 50 and max(times_lost) == 1

    async def load(client, joined):
        """How many times it was told that its sequence is lost."""
        client.cut, lost = True, 0
        while not joined.is_set():
            if not await client.step():
                lost += 1
                client.begin_anew()
            await asyncio.sleep(0.05)
        return lost

    async def stream(socket, x, wanted):
        """Whether it was closed; if not, all answers are right."""
        for chunk, y in zip(x, wanted, strict=True):
            try:
                await socket.send(chunk.tobytes())
                assert await socket.recv() == y
            except websockets.ConnectionClosed:
                return True
            await asyncio.sleep(0.1)
        await socket.close()
        return False

    fleet.scale(2)
    asyncio.run(run())


def test_a_replica_is_drained(fleet, rng):
    """All sessions go on with the other one."""

    async def run():
        private, x = fleet.layer.stream(), rng.standard_normal((1, CHUNK, WIDTH)).astype("f4")
        async with aiohttp.ClientSession() as http:
            clients = clients_of(fleet, http, rng, "drained", 30)
            sockets = [await websockets.connect(f"ws://{fleet.address}/v2/models/tones/stream") for _ in range(8)]
            for socket in sockets:
                await socket.recv()
                await socket.send(x.tobytes())
            y = private.run(x).tobytes()
            assert [await socket.recv() for socket in sockets] == [y] * 8
            y = private.run(x).tobytes()
            task = asyncio.ensure_future(asyncio.to_thread(fleet.scale, 1))
            rounds = 0
            while not task.done() or len(fleet.replicas()) != 1 or rounds < 3:
                await asyncio.gather(*(client.step() for client in clients))
                rounds += 1
            await task
            closed = 0
            for socket in sockets:
                with contextlib.suppress(websockets.ConnectionClosed):
                    await socket.send(x.tobytes())
                answer = await socket.recv()
                if answer != y:  # its replica has stopped
                    await websockets_resumes(fleet, socket, answer, x, y)
                    closed += 1
                await socket.close()
            assert 0 < closed < 8
            assert not any(client.lost for client in clients)

    fleet.scale(2)
    asyncio.run(run())


async def websockets_resumes(fleet, socket, answer, x, y):
    """A session goes on elsewhere with the snapshot that the server has sent."""
    message = json.loads(answer)
    assert message["type"] == "snapshot" and base64.b64decode(message["data"])
    with pytest.raises(websockets.ConnectionClosed):
        await socket.recv()
    assert socket.close_code == 1001
    async with websockets.connect(f"ws://{fleet.address}/v2/models/tones/stream") as other:
        await other.recv()
        await other.send(json.dumps({"type": "restore", "data": message["data"]}))
        assert json.loads(await other.recv()) == {"type": "restored"}
        await other.send(x.tobytes())
        assert await other.recv() == y


def test_the_example(fleet, capsys):
    runpy.run_path(str(Path(__file__).parents[1] / "examples" / "serve_ray.py"))["main"](fleet.port, num_replicas=1)
    assert "10 steps by one replica, 10 by another one, bits the same" in capsys.readouterr().out
