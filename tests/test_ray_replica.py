"""Sequences that move between services in one process, with a router of the test's own; no cluster is started."""

import asyncio
import json

import numpy as np
import pytest

pytest.importorskip("ray", reason="needs the package ray")

import fsspec
from ray.serve._private.http_util import parse_session_id_header
from serving import random_layer

from fastrnn.ray import replica
from fastrnn.ray.replica import ReplicaService
from fastrnn.ray.routing import SessionHeader, session_id
from fastrnn.ray.snapshots import Saved, SnapshotKey, SnapshotStore
from fastrnn.serve import Options
from fastrnn.serve.rest import application_of

LAYER = random_layer("LSTM", 3, 17)


class Router:
    """All sessions are of one replica."""

    def __init__(self, owner):
        self.tag = owner

    def owner(self, session):
        return self.tag

    def members(self):
        return {"a", "b"}


class Services:
    """Two services; one of them has every session."""

    def __init__(self, path, **options):
        self.stores = {name: None if path is None else SnapshotStore(str(path)) for name in "ab"}
        self.services = {
            name: ReplicaService({"m": LAYER}, Options(**options), name, store) for name, store in self.stores.items()
        }
        self.apps = {name: SessionHeader(application_of(service)) for name, service in self.services.items()}
        self.rng = np.random.default_rng(5)
        self.streams = {}

    def route(self, owner, hears="ab"):
        for name in hears:
            self.services[name]._on_change(Router(owner))

    async def move(self, *sessions):
        """Start sequences in a; then b has them."""
        self.route("a")
        for session in sessions:
            await self.step("a", session, start=True)
        self.route("b")
        await self.settled()

    async def settled(self):
        while any(service._giving_up for service in self.services.values()):
            await asyncio.sleep(0.01)

    async def step(self, name, session="s", start=False, header="s"):
        """The status of a chunk's answer, and its error; an answer is compared with that of a stream."""
        x = self.rng.standard_normal((1, 4, 3)).astype("f4")
        tensor = {"name": "x", "datatype": "FP32", "shape": x.shape, "data": x.ravel().tolist()}
        parameters = {"sequence_id": session, "sequence_start": start, "binary_data_output": True}
        messages = [
            {"type": "http.request", "body": json.dumps({"inputs": [tensor], "parameters": parameters}).encode()}
        ]
        sent = []

        async def receive():
            return messages.pop() if messages else await asyncio.get_running_loop().create_future()

        async def send(message):
            sent.append(message)

        headers = [] if header is None else [(b"X-Session-Id", header.encode())]
        scope = {"type": "http", "method": "POST", "path": "/v2/models/m/infer", "headers": headers}
        await self.apps[name](scope, receive, send)
        body = sent[1]["body"]
        if sent[0]["status"] != 200:
            return sent[0]["status"], json.loads(body)["error"]
        if start:
            self.streams[session] = LAYER.stream()
        assert body.endswith(self.streams[session].run(x).tobytes())
        return 200, ""


def run(scenario):
    asyncio.run(asyncio.wait_for(scenario(), 30))


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(replica, "MOVE_SECONDS", 0.3)


@pytest.fixture(params=["local", "memory"])
def place(request, tmp_path):
    return tmp_path / "snapshots" if request.param == "local" else f"memory://{tmp_path.name}"


def test_a_sequence_moves_there_and_back(place):
    async def scenario():
        services = Services(place)
        services.route("a")
        assert await services.step("a", start=True) == (200, "")
        for owner in "baab":
            services.route(owner)
            for _ in range(3):
                assert await services.step(owner) == (200, "")
            await services.settled()
        assert [len(service.entries["m"].sessions) for service in services.services.values()] == [0, 1]

    run(scenario)


def test_requests_keep_their_order_while_a_sequence_moves(place):
    async def scenario():
        services = Services(place)
        services.route("a")
        await services.step("a", start=True)
        services.route("b", hears="b")
        steps = [asyncio.ensure_future(services.step("b")) for _ in range(5)]
        await asyncio.sleep(0.1)  # a has not heard of it: b waits
        assert not any(step.done() for step in steps)
        services.route("b", hears="a")
        assert await asyncio.gather(*steps) == [(200, "")] * 5

    run(scenario)


def test_a_replica_does_not_answer_what_is_not_its_own(place):
    async def scenario():
        services = Services(place)
        services.route("a")
        await services.step("a", start=True)
        services.route("b")
        status, error = await services.step("a")
        assert status == 503 and "is moving to another replica" in error
        assert await services.step("b") == (200, "")

    run(scenario)


def test_without_snapshots_a_moved_sequence_is_refused():
    async def scenario():
        services = Services(None)
        services.route("a")
        await services.step("a", start=True)
        services.route("b")
        status, error = await services.step("b")
        assert status == 404 and "is not known" in error
        assert await services.step("b", start=True) == (200, "")
        services.route("a")  # where its first state is no more
        assert (await services.step("a"))[0] == 404

    run(scenario)


def test_a_sequence_that_starts_anew_does_not_find_its_old_snapshot(place):
    async def scenario():
        services = Services(place)
        await services.move("s")
        assert await services.step("b", start=True) == (200, "")
        services.services["b"].entries["m"].sessions.release(next(iter(services.services["b"]._held()))[1], "s")  # lost
        services.route("a")
        status, error = await services.step("a")
        assert status == 404 and "its replica was lost" in error

    run(scenario)


def test_a_snapshot_that_comes_after_the_sequence_began_anew_is_forgotten(place, monkeypatch):
    monkeypatch.setattr(replica, "RECENT_SECONDS", 0.3)

    async def scenario():
        services = Services(place)
        services.route("a")
        for session in ("s", "t"):
            await services.step("a", session, start=True)
        services.route("b", hears="b")
        assert await services.step("b", "s", start=True) == (200, "")
        services.route("b", hears="a")  # which writes both
        await services.settled()
        filesystem, root = fsspec.core.url_to_fs(str(place))
        assert len(filesystem.find(root)) == 2
        await asyncio.sleep(0.5)
        assert len(filesystem.find(root)) == 1
        for session in ("s", "t"):
            assert await services.step("b", session) == (200, "")

    run(scenario)


def test_snapshots_that_expire_or_are_damaged(place):
    async def scenario():
        services = Services(place, idle_seconds=0.2)
        await services.move("old", "bad")
        (tenant,) = services.services["b"].access.tenants()
        key = SnapshotKey("m", services.services["b"].entries["m"].served.fingerprint, tenant, "bad")
        saved = services.stores["a"].take(key)
        services.stores["a"].put({key: Saved(saved.snapshot[:-1], saved.used)})
        status, error = await services.step("b", "bad")
        assert status == 404 and "is lost" in error
        await asyncio.sleep(0.3)
        status, error = await services.step("b", "old")
        assert status == 404 and "has expired" in error

    run(scenario)


def test_a_snapshot_that_is_cut_is_refused(place):
    async def scenario():
        services = Services(place)
        await services.move("s")
        filesystem, root = fsspec.core.url_to_fs(str(place))
        (path,) = (path for path in filesystem.find(root))
        content = filesystem.cat_file(path)
        for size, message in ((len(content) - 1, f"has {len(content) - 1} bytes and begins"), (3, "has 3 bytes")):
            filesystem.pipe_file(path, content[:size])
            status, error = await services.step("b")
            assert status == 404 and "'s' is lost: the snapshot " in error and message in error
            assert not filesystem.find(root)

    run(scenario)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), PermissionError("read-only"), KeyError("x")])
def test_a_store_that_fails(tmp_path, caplog, monkeypatch, error):
    """Sequences that cannot be written are lost; while the store cannot be read, requests can be tried again."""

    def fails(*arguments):
        raise error

    async def scenario():
        services = Services(tmp_path)
        services.route("a")
        for session in ("kept", "full"):
            await services.step("a", session, start=True)
        services.route("b")
        await services.settled()
        monkeypatch.setattr(services.stores["b"], "take", fails)
        status, message = await services.step("b", "kept")
        assert status == 503 and "cannot be reached" in message and str(tmp_path) not in message
        monkeypatch.undo()
        monkeypatch.setattr(replica, "MOVE_SECONDS", 0.3)
        assert await services.step("b", "kept") == (200, "")
        assert await services.step("b", "full") == (200, "")
        monkeypatch.setattr(services.stores["b"], "put", fails)
        services.route("a")
        await services.settled()
        for session in ("kept", "full"):
            status, message = await services.step("a", session)
            assert status == 404 and "its replica was lost" in message
        monkeypatch.setattr(services.stores["a"], "forget", fails)
        assert (await services.step("a", "kept", start=True))[0] == 503

    run(scenario)
    assert "2 sessions are lost: their snapshots could not be written" in caplog.text


def test_a_directory_that_cannot_be_written_to_is_refused_at_the_start(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OSError, match="file"):
            SnapshotStore(str(path))


@pytest.mark.parametrize("header", ["é 語", "a b", "🙂" * 20])
def test_ids_of_every_alphabet_are_those_of_the_proxy(header):
    """Ray's proxies read the header as UTF-8 before they hash it."""
    found = []

    async def app(scope, receive, send):
        found.append(session_id.get())

    scope = {"type": "http", "headers": [(b"x_session_ID", header.encode())]}
    asyncio.run(SessionHeader(app)(scope, None, None))
    assert found == [header] == [parse_session_id_header(dict(scope["headers"]))]


def test_the_header_is_needed_by_sequences_alone(place):
    async def scenario():
        services = Services(place)
        services.route("a")
        status, error = await services.step("a", start=True, header=None)
        assert status == 400 and "need the header x-session-id" in error

    run(scenario)


def test_stopping_saves_what_is_left(place):
    async def scenario():
        services = Services(place)
        services.route("a")
        await services.step("a", start=True)
        await services.services["a"].drain()
        services.services["a"].stop()
        services.route("b", hears="b")
        assert await services.step("b") == (200, "")

    run(scenario)
