"""Stream pools: every session has the bits of a private stream, whatever joins and leaves."""

import copy
import gc
import os
import pickle
import signal
import threading
import time

import numpy as np
import pytest

import fastrnn
from fastrnn import _core


@pytest.fixture(params=[1, 2])
def num_threads(request):
    before = fastrnn.get_num_threads()
    fastrnn.set_num_threads(request.param)
    yield request.param
    fastrnn.set_num_threads(before)


def random_layer(kind, input_size, hidden_size, num_layers=1, seed=0, **options):
    rng = np.random.default_rng(seed)
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind]
    weights = {}
    for layer in range(num_layers):
        width = input_size if layer == 0 else hidden_size
        for name, shape in (
            ("weight_ih", (gates * hidden_size, width)),
            ("weight_hh", (gates * hidden_size, hidden_size)),
            ("bias_ih", (gates * hidden_size,)),
            ("bias_hh", (gates * hidden_size,)),
        ):
            weights[f"{name}_l{layer}"] = rng.uniform(-0.5, 0.5, shape).astype("f4")
    return getattr(fastrnn, kind).from_state_dict(weights, **options)


def model_of(name):
    rng = np.random.default_rng(1)
    if name == "convolution":
        kernel = rng.standard_normal((7, 5, 3)).astype("f4")
        head = rng.standard_normal((3, 19)).astype("f4")
        return fastrnn.Sequential(
            fastrnn.Conv1d(kernel, padding="causal", stride=2), random_layer("GRU", 7, 19), fastrnn.Linear(head)
        )
    if name == "ids":
        table = rng.standard_normal((11, 5)).astype("f4")
        return fastrnn.Sequential(fastrnn.Embedding(table), random_layer("LSTM", 5, 17), random_layer("GRU", 17, 4))
    if name == "masked ids":
        table = rng.standard_normal((11, 5)).astype("f4")
        return fastrnn.Sequential(fastrnn.Embedding(table, mask_zero=True), random_layer("LSTM", 5, 17))
    if name == "float64":
        return random_layer("LSTM", 5, 9, dtype="float64")
    kind, hidden_size, num_layers = name.split()
    options = {"nonlinearity": "tanh"} if kind == "RNN" else {}
    return random_layer(kind, 5, int(hidden_size), int(num_layers), **options)


MODELS = ["LSTM 1 1", "LSTM 16 2", "LSTM 33 1", "GRU 17 3", "RNN 31 1", "convolution", "ids", "masked ids", "float64"]


def chunk_for(model, rng, steps):
    steps *= getattr(model, "stride", 1)
    if getattr(model, "num_ids", 0):
        return rng.integers(0, model.num_ids, steps)
    return rng.standard_normal((steps, model.input_size)).astype(model.dtype)


def states_of(state):
    """Every array of a session's state."""
    if isinstance(state, np.ndarray):
        return [state]
    return [array for part in state for array in states_of(part)]


@pytest.mark.parametrize("name", MODELS)
def test_sessions_have_the_bits_of_private_streams(name):
    model = model_of(name)
    rng = np.random.default_rng(len(name))
    pool = fastrnn.StreamPool(model, capacity=7)
    private = {}
    compared = 0
    for round_number in range(40):
        if len(private) < pool.capacity and rng.random() < 0.6:
            if private and rng.random() < 0.4:
                original = next(iter(private))
                session, stream = pool.open(original.snapshot()), copy.copy(private[original])
            else:
                session, stream = pool.open(), model.stream()
            private[session] = stream
        chosen = [session for session in private if rng.random() < 0.7]
        rng.shuffle(chosen)
        longest = 1 if round_number % 3 == 0 else 5
        chunks = [chunk_for(model, rng, int(rng.integers(round_number % 2, longest + 1))) for _ in chosen]
        for session, chunk, y in zip(chosen, chunks, pool.run(zip(chosen, chunks, strict=True)), strict=True):
            wanted = private[session].run(chunk[None])[0]
            assert y.dtype == wanted.dtype and y.tobytes() == wanted.tobytes()
            compared += y.size
        for session in chosen:
            assert session.snapshot() == private[session].snapshot()
            action = rng.random()
            if action < 0.1:
                session.reset()
                private[session].reset()
            elif action < 0.2:
                session.close()
                del private[session]
    assert compared > 100


@pytest.mark.parametrize("name", ["LSTM 33 2", "GRU 16 1"])
def test_state_of_a_layers_session(name):
    model = model_of(name)
    pool = fastrnn.StreamPool(model, capacity=3)
    session, stream = pool.open(), model.stream()
    other = pool.open()
    x = chunk_for(model, np.random.default_rng(0), 4)
    pool.run([(other, x[:1]), (session, x)])
    stream.run(x[None])
    assert type(session.state) is type(stream.state)
    for found, wanted in zip(states_of(session.state), states_of(stream.state), strict=True):
        assert found.shape == wanted.shape and found.tobytes() == wanted.tobytes()


def test_state_of_a_models_session_is_that_of_its_recurrent_layers():
    model = model_of("ids")
    pool = fastrnn.StreamPool(model, capacity=2)
    pool.open()
    session = pool.open()
    ids = np.array([3, 1, 4, 1])
    pool.run([(session, ids)])
    table, lstm, gru = model.spec.ops
    y, first = fastrnn.LSTM(lstm)(table.weight[ids][None])
    _, second = fastrnn.GRU(gru)(y)
    found = states_of(session.state)
    assert [array.shape for array in found] == [(1, 1, 17), (1, 1, 17), (1, 1, 4)]
    for array, wanted in zip(found, (*first, second), strict=True):
        assert array.tobytes() == wanted.tobytes()


@pytest.mark.usefixtures("num_threads")
def test_more_sessions_than_one_slice():
    layer = random_layer("LSTM", 40, 48)
    rng = np.random.default_rng(3)
    pool = fastrnn.StreamPool(layer, capacity=700)
    sessions = [pool.open() for _ in range(700)]
    for session in sessions[::7]:
        session.close()
    alive = [session for session in sessions if not session.closed]
    rng.shuffle(alive)
    for longest in (1, 6):
        chunks = [rng.standard_normal((rng.integers(1, longest + 1), 40)).astype("f4") for _ in alive]
        before_run = [session.snapshot() for session in alive]
        found = pool.run(zip(alive, chunks, strict=True))
        stream = layer.stream()
        for snapshot, chunk, y in list(zip(before_run, chunks, found, strict=True))[::17]:
            stream.restore(snapshot)
            assert stream.run(chunk[None])[0].tobytes() == y.tobytes()


@pytest.mark.usefixtures("num_threads")
@pytest.mark.parametrize("weight_dtype", ["float32", "float16", "int8"])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_slots_anywhere_in_the_store(kind, weight_dtype):
    """In descending order, with gaps, after different numbers of runs; the lengths have ties, ones and zeros."""
    options = {"nonlinearity": "relu"} if kind == "RNN" else {}
    layer = random_layer(kind, 40, 65, 2, weight_dtype=weight_dtype, **options)
    rng = np.random.default_rng(2)
    pool = fastrnn.StreamPool(layer, capacity=40)
    sessions = [pool.open() for _ in range(40)]
    private = {session: layer.stream() for session in sessions}
    together = layer.stream(batch_size=40)
    for lengths in ([1] * 7, [3, 0, 1, 5, 5, 0, 2], [1] * 18, [4, 1] * 9, [1] * 3, [0, 0], [2]):
        numbers = sorted(rng.permutation(40)[: len(lengths)].tolist(), reverse=True)
        chosen = [sessions[number] for number in numbers]
        chunks = [rng.standard_normal((length, 40)).astype("f4") for length in lengths]
        found = pool.run(zip(chosen, chunks, strict=True))
        wanted = [private[session].run(chunk[None])[0] for session, chunk in zip(chosen, chunks, strict=True)]
        assert [y.tobytes() for y in found] == [y.tobytes() for y in wanted]
        if len(set(lengths)) == 1:
            y = together.run(np.array(chunks), rows=numbers)
            assert y.tobytes() == np.array(wanted).tobytes()
        else:
            for number, chunk in zip(numbers, chunks, strict=True):
                together.run(chunk[None], rows=[number])
    for session, stream in private.items():
        assert session.snapshot() == stream.snapshot()
    assert [a.tobytes() for a in states_of(together.state)] == [
        np.concatenate(parts, axis=1).tobytes()
        for parts in zip(*(states_of(session.state) for session in sessions), strict=True)
    ]


def test_nan_of_one_session_reaches_no_other():
    layer = model_of("LSTM 16 2")
    pool = fastrnn.StreamPool(layer, capacity=2)
    bad, good = pool.open(), pool.open()
    x = np.ones((3, 5), "f4")
    pool.run([(bad, np.full((3, 5), np.nan, "f4")), (good, x)])
    assert pool.run([(bad, x), (good, x)])[1].tobytes() == layer(np.ones((1, 6, 5), "f4"))[0][0, 3:].tobytes()


def test_full_pool_and_stale_handles():
    pool = fastrnn.StreamPool(model_of("GRU 17 3"), capacity=2)
    first, second = pool.open(), pool.open()
    with pytest.raises(fastrnn.PoolFull, match="all 2 slots"):
        pool.open()
    pool.run([(first, np.ones((2, 5), "f4"))])
    first.close()
    first.close()
    assert first.closed and len(pool) == 1
    third = pool.open()
    assert not third.state.any()
    for use in (first.snapshot, first.reset, lambda: first.state, lambda: first.restore(second.snapshot())):
        with pytest.raises(ValueError, match="closed"):
            use()
    with pytest.raises(ValueError, match=r"pairs\[1\] is closed"):
        pool.run([(third, np.ones((1, 5), "f4")), (first, np.ones((1, 5), "f4"))])
    assert not third.state.any()
    with pool.open() if len(pool) < 2 else second as session:
        assert not session.closed
    assert session.closed


def test_the_slot_of_a_handle_that_is_dropped_is_free():
    layer = random_layer("GRU", 3, 4)
    pool = fastrnn.StreamPool(layer, 2)
    kept = pool.open()
    x = np.ones((2, 3), "f4")
    for _ in range(3):
        pool.run((session, x) for session in [pool.open()])
        assert len(pool) == 1
        dropped = pool.open()
        dropped.close()
        del dropped
        assert len(pool) == 1
        cycle = [pool.open()]
        cycle.append(cycle)
        assert len(pool) == 2
        del cycle
        collector = threading.Thread(target=gc.collect)
        collector.start()
        collector.join()
        assert len(pool) == 1
    assert pool.run([(kept, x)])[0].tobytes() == layer(x[None])[0].tobytes()


def test_a_refused_call_changes_nothing():
    pool = fastrnn.StreamPool(model_of("LSTM 33 1"), capacity=4)
    other = fastrnn.StreamPool(pool.model, capacity=1).open()
    first, second = pool.open(), pool.open()
    x = np.ones((2, 5), "f4")
    pool.run([(first, x), (second, x)])
    before = first.snapshot(), second.snapshot()
    refused = [
        ([(first, x), (second, x), (first, x)], ValueError, r"pairs\[2\] has the session of pairs\[0\]"),
        ([(first, x), (second, x[:, :3])], ValueError, r"pairs\[1\] has shape \(2, 3\), wanted \(T, 5\)"),
        ([(first, x), (second, x[0])], ValueError, r"pairs\[1\] has shape \(5,\)"),
        ([(first, x), (second, x.astype("f8"))], TypeError, r"pairs\[1\] is float64"),
        ([(first, x), (second, None)], TypeError, r"pairs\[1\]"),
        ([(first, x), (other, x)], ValueError, r"pairs\[1\] is of another pool"),
        ([(first, x), (None, x)], TypeError, r"pairs\[1\] begins with NoneType"),
        ([(first, x), second], TypeError, r"pairs\[1\] is Session"),
        ([(first, x), (second, x, x)], TypeError, r"pairs\[1\]"),
    ]
    for pairs, error, message in refused:
        with pytest.raises(error, match=message):
            pool.run(pairs)
        assert (first.snapshot(), second.snapshot()) == before
    with pytest.raises(TypeError):
        pool.run(7)
    with pytest.raises(ValueError, match="casting"):
        pool.run([], casting="round")
    assert pool.run([]) == []
    assert pool.run([(first, np.ones((0, 5), "f4"))])[0].shape == (0, 33)
    assert (first.snapshot(), second.snapshot()) == before
    assert pool.run([(first, x.astype("f8"))], casting="same_kind")[0].shape == (2, 33)


def test_refused_ids_change_nothing_and_are_named():
    for name in ("ids", "masked ids"):
        pool = fastrnn.StreamPool(model_of(name), capacity=2)
        first, second = pool.open(), pool.open()
        pool.run([(first, [1, 2]), (second, [3])])
        before = first.snapshot(), second.snapshot()
        with pytest.raises(ValueError, match=r"the chunk of pairs\[1\]\[2\] is 11, but the embedding has 11 rows"):
            pool.run([(first, [1, 2]), (second, [3, 4, 11])])
        with pytest.raises(TypeError, match=r"pairs\[0\] is of type float64"):
            pool.run([(first, [0.5])])
        with pytest.raises(ValueError, match=r"pairs\[0\] has shape \(1, 1\)"):
            pool.run([(first, [[1]])])
        for pair in (second, (second,), (second, [3], [3])):
            with pytest.raises(TypeError, match=r"pairs\[1\] is .*wanted a pair of a session and a chunk"):
                pool.run([(first, [1, 2]), pair])
        assert (first.snapshot(), second.snapshot()) == before


def test_strides_and_foreign_snapshots_are_refused():
    pool = fastrnn.StreamPool(model_of("convolution"), capacity=2)
    session = pool.open()
    with pytest.raises(ValueError, match="has 3 steps, wanted a multiple of 2"):
        pool.run([(session, np.ones((3, 5), "f4"))])
    with pytest.raises(ValueError, match="not a snapshot"):
        pool.open(b"anything")
    with pytest.raises(ValueError, match="fingerprint"):
        pool.open(fastrnn.StreamPool(model_of("GRU 17 3"), capacity=1).open().snapshot())
    with pytest.raises(ValueError, match="2 rows, wanted 1"):
        pool.open(pool.model.stream(2).snapshot())
    assert len(pool) == 1


def test_what_a_pool_is_not_made_of():
    with pytest.raises(TypeError, match="model is int"):
        fastrnn.StreamPool(3)
    with pytest.raises(ValueError, match="capacity"):
        fastrnn.StreamPool(model_of("LSTM 1 1"), capacity=0)
    rng = np.random.default_rng(0)
    names = [f"weight_{part}_l0{end}" for end in ("", "_reverse") for part in ("ih", "hh")]
    weights = {name: rng.random((8, 2)).astype("f4") for name in names}
    with pytest.raises(ValueError):
        fastrnn.StreamPool(fastrnn.LSTM.from_state_dict(weights))


def test_no_copies_of_handles():
    pool = fastrnn.StreamPool(model_of("LSTM 1 1"), capacity=1)
    session = pool.open()
    for duplicate in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError):
            duplicate(session)
        with pytest.raises(TypeError):
            duplicate(pool)
    with pytest.raises(ValueError, match="slot is 1"):
        _core.BaseSession(pool, pool._stream, 1)


def test_threads_queue_and_keep_their_bits():
    layer = random_layer("LSTM", 64, 64)
    pool = fastrnn.StreamPool(layer, capacity=8)
    rng = np.random.default_rng(5)
    chunks = rng.standard_normal((8, 30, 20, 64)).astype("f4")
    results = [[] for _ in range(8)]

    def work(number):
        session = pool.open()
        for chunk in chunks[number]:
            results[number].append(pool.run([(session, chunk)])[0])
        session.close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(8):
        wanted = layer(chunks[number].reshape(1, -1, 64))[0][0]
        assert np.concatenate(results[number]).tobytes() == wanted.tobytes()
    assert len(pool) == 0


def test_a_session_in_a_running_call_raises():
    layer = random_layer("LSTM", 256, 256)
    pool = fastrnn.StreamPool(layer, capacity=2)
    session, free = pool.open(), pool.open()
    x = np.zeros((20_000, 256), "f4")
    started = threading.Event()

    class Pairs:
        """Sets `started` when the call has read its pairs."""

        def __iter__(self):
            yield session, x
            started.set()

    thread = threading.Thread(target=lambda: pool.run(Pairs()))
    thread.start()
    assert started.wait(10)
    uses = [
        lambda: pool.run([(session, x[:1])]),
        session.snapshot,
        session.reset,
        session.close,
        lambda: session.state,
        lambda: session.restore(free.snapshot()),
    ]
    refused = 0
    while refused < len(uses) and thread.is_alive():
        try:
            uses[refused]()
        except RuntimeError as error:
            assert "in a running call" in str(error)
            refused += 1
    assert refused == len(uses)
    free.reset()  # the other sessions are usable meanwhile
    thread.join()
    assert session.state.h.shape == (1, 1, 256)


def test_a_session_that_is_closed_while_its_chunk_is_converted_is_named():
    layer = random_layer("GRU", 3, 4)
    pool = fastrnn.StreamPool(layer, 2)
    session, other = pool.open(), pool.open()
    x = np.ones((2, 3), "f4")

    class Chunk:
        def __array__(self, dtype=None, copy=None):
            session.close()
            return x

    with pytest.raises(ValueError, match=r"the session of pairs\[1\] is closed"):
        pool.run([(other, x), (session, Chunk())])
    assert pool.run([(other, x)])[0].tobytes() == layer(x[None])[0].tobytes()  # its state is unchanged


def test_of_threads_that_close_a_session_one_frees_its_slot():
    pool = fastrnn.StreamPool(random_layer("GRU", 3, 4), 2)
    for _ in range(50):
        session = pool.open()
        start = threading.Barrier(4)
        faults = []

        def close(session=session, start=start, faults=faults):
            start.wait(10)
            try:
                session.close()
            except Exception as error:
                faults.append(error)

        threads = [threading.Thread(target=close) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not faults and len(pool) == 0
    assert session.take_slot() == -1


def test_a_child_forked_during_a_run_raises_instead_of_waiting():
    pool = fastrnn.StreamPool(random_layer("LSTM", 256, 256), capacity=2)
    session, free = pool.open(), pool.open()
    x = np.zeros((20_000, 256), "f4")
    thread = threading.Thread(target=lambda: pool.run([(session, x)]))
    thread.start()
    while not pool._lock.locked():
        time.sleep(0.001)
    time.sleep(0.02)  # the lock is taken just before the computation begins
    pid = os.fork()
    if pid == 0:
        signal.alarm(10)
        try:
            pool.run([(free, x[:1])])
        except RuntimeError:
            os._exit(0)
        os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
    thread.join()
    assert pool.run([(free, x[:1])])[0].shape == (1, 256)
