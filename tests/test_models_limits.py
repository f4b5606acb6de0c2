"""Models under memory that runs out, interrupts, and arrays that are not what they say."""

import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from bits import assert_same_bits
from cases import random_spec
from model_cases import LENGTHS, conv1d, draw, linear, pad, random_rows
from test_lying_arrays import Fitting, Lying, Widened, attempt, lie, tiny
from test_threads import fail_each_allocation

import fastrnn
from fastrnn import Sequential, _core
from fastrnn.models import ops
from fastrnn.models.engine import build_engine
from fastrnn.schedule import schedule


def tagger(rng):
    return Sequential(
        ops.Embedding(draw(rng, 20, 8)), random_spec(rng, "gru", 8, 6, bidirectional=True), linear(rng, 12, 5)
    )


def detector(rng):
    convolution = conv1d(rng, 3, 6, causal=True, stride=1)
    return Sequential(convolution, "relu", random_spec(rng, "lstm", 6, 7), linear(rng, 7, 2), ops.Softmax())


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")  # nothing prints
@pytest.mark.parametrize("way", ["ragged", "list", "packed", "pooled", "ids"])
def test_every_failed_allocation_of_a_call(rng, way):
    model = {"pooled": lambda rng: Sequential(*detector(rng).spec.ops, ops.Mean()), "ids": tagger}.get(way, detector)(
        rng
    )
    rows = random_rows(rng, model.spec)
    x, packed = pad(rows), fastrnn.pack(pad(rows), LENGTHS)
    calls = {"list": lambda: model(rows), "packed": lambda: model(packed)}
    call = calls.get(way, lambda: model(x, lengths=LENGTHS))
    wanted = call()
    failures = 0
    for _ in fail_each_allocation(call):
        assert_same_bits(call(), wanted)
        failures += 1
    assert failures > 3


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")  # nothing prints
def test_every_failed_allocation_of_a_new_engine(rng):
    model, made = detector(rng), []
    spec = model.spec
    assert len(list(fail_each_allocation(lambda: made.append(build_engine(spec, None))))) > 2
    assert made[-1].fingerprint == model._engine.fingerprint


@pytest.mark.parametrize("way", ["step", "run", "reset"])
def test_every_failed_allocation_of_a_stream_leaves_its_state(rng, way):
    model = detector(rng)
    x = np.stack(random_rows(rng, model.spec, (5,) * 4))
    stream = model.stream(4)
    stream.run(x)
    before = stream.snapshot()
    attempts = {
        "step": lambda: stream.step(x[:, 0]),
        "run": lambda: stream.run(x),
        "reset": lambda: stream.reset(rows=[1, 2]),
    }
    failures = 0
    for _ in fail_each_allocation(attempts[way]):
        assert stream.snapshot() == before
        failures += 1
    assert failures > 0


@pytest.mark.parametrize("num_threads", [1, 2])
def test_an_interrupt_leaves_a_stream_as_it_was(num_threads):
    """The bound is only an order of magnitude; bench/ measures the time."""
    code = f"""
import os, signal, threading, time
import numpy as np, fastrnn
signal.signal(signal.SIGINT, signal.default_int_handler)
fastrnn.set_num_threads({num_threads})
weights = {{"weight_ih_l0": np.full((1536, 64), 0.01, "f4"), "weight_hh_l0": np.full((1536, 512), 0.01, "f4")}}
gru = fastrnn.GRU.from_state_dict(weights)
first, last = fastrnn.Linear(np.ones((64, 8), "f4")), fastrnn.Linear(np.ones((64, 512), "f4"))
model = fastrnn.Sequential(first, gru, last, "tanh")
stream, few, x = model.stream(4), np.ones((4, 20, 8), "f4"), np.ones((4, 40000, 8), "f4")
wanted = model(few)
stream.run(few)
before, sent = stream.snapshot(), []
def send():
    time.sleep(0.3)
    sent.append(time.monotonic())
    os.kill(os.getpid(), signal.SIGINT)
for call in (lambda: model(x), lambda: stream.run(x)):
    threading.Thread(target=send).start()
    try:
        call()
    except KeyboardInterrupt:
        print(time.monotonic() - sent[-1])
assert stream.snapshot() == before and (model(few) == wanted).all()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and not done.stderr, done.stderr
    waits = [float(line) for line in done.stdout.split()]
    assert len(waits) == 2 and max(waits) < 2


def test_other_threads_run_during_a_call(rng):
    """A long call does not hold the GIL."""
    model = Sequential(random_spec(rng, "lstm", 64, 256), linear(rng, 256, 64))
    x = np.ones((1, 3000, 64), "f4")
    count, stop = [0], threading.Event()

    def tick():
        while not stop.is_set():
            count[0] += 1
            time.sleep(0.001)

    other = threading.Thread(target=tick)
    other.start()
    model(x)
    stop.set()
    other.join()
    assert count[0] > 5


def test_ids_that_another_thread_changes_are_not_followed(rng):
    """The ids that were checked are the ids that are read."""
    model = Sequential(ops.Embedding(draw(rng, 9, 40)), random_spec(rng, "gru", 40, 40))
    ids, stop = np.ones((16, 200), np.int64), threading.Event()

    def change():
        while not stop.is_set():
            ids[...] = 10**15
            ids[...] = 1

    other = threading.Thread(target=change)
    other.start()
    wanted = model(np.ones((1, 200), np.int64))[0]
    for _ in range(50):
        try:
            y = model(ids)
        except ValueError as error:
            assert "rows" in str(error) or "another thread" in str(error)
        else:
            assert_same_bits(y[0], wanted)
    stop.set()
    other.join()


@pytest.mark.parametrize("kind", [Lying, Widened])
def test_lying_arrays_do_no_harm(rng, kind):
    for model in (detector(rng), tagger(rng)):
        rows = random_rows(rng, model.spec)
        x = pad(rows)
        if not model.num_ids:
            x = np.nan_to_num(x)
        wanted = model(x) if not model.num_ids else model(x, lengths=LENGTHS)
        for call in (
            lambda x=x, model=model: model(lie(x, kind), lengths=LENGTHS),
            lambda x=x, model=model: model(x, lengths=lie(np.array(LENGTHS), kind)),
            lambda x=x, model=model: model(x, lengths=LENGTHS, mask=lie(np.ones(x.shape[:2], bool), kind)),
            lambda x=x, model=model, wanted=wanted: model(
                x, lengths=LENGTHS, out=lie(np.zeros(wanted.shape, "f4"), kind)
            ),
            lambda rows=rows, model=model: model([lie(row, kind) for row in rows]),
        ):
            attempt(call)
    stream = detector(rng).stream(2)
    for bad in (lie(np.zeros((2, 3), "f4"), kind), tiny(Fitting, (2, 3))):
        attempt(lambda bad=bad: stream.step(bad))
        attempt(lambda bad=bad: stream.run(bad[:, None]))


def test_the_compiled_module_checks_memory(rng):
    model = detector(rng)
    engine, f4 = model._engine, np.float32
    order = schedule(np.array([3, 0, 4], np.int64))
    x, y = np.zeros((3, 4, 3), f4), np.zeros((3, 4, 2), f4)
    engine.run(x, y, order, "zero")
    unwritable = y.copy()
    unwritable.flags.writeable = False
    for bad in (
        (x[:2], y, order),
        (x[:, :3], y, order),
        (x[..., :2], y, order),
        (x.astype("f8"), y, order),
        (x, y[:2], order),
        (x, y[:, :3], order),
        (x, y.astype("f8"), order),
        (x, unwritable, order),
        (x, list(y), order),
        (list(x), list(y[:2]), order),
        (list(x[:, :3]), list(y), order),
        (list(x), list(y[:, :3]), order),
        (x[0], y[0], order),
        (np.zeros((7, 3), f4), np.zeros((6, 2), f4), order),
        (np.zeros((6, 3), f4), np.zeros((7, 2), f4), order),
        (x, y, order._replace(lengths=np.array([5, 3, 0]))),
        (x, y, order._replace(sorted_indices=np.array([0, 1, 3]))),
        (None, y, None),
        (x, None, None),
    ):
        with pytest.raises((TypeError, ValueError)):
            engine.run(*bad)
    with pytest.raises((TypeError, ValueError)):
        engine.run(tiny(Fitting, (3, 4, 3)), y, order)
    pooled = Sequential(linear(rng, 3, 2), ops.Mean())._engine
    pooled.run(x, np.zeros((3, 1, 2), f4), order)
    with pytest.raises((TypeError, ValueError)):
        pooled.run(x, np.zeros((3, 0, 2), f4), order)
    ids = tagger(rng)._engine
    ids.run(np.zeros((3, 4, 1), np.int64), np.zeros((3, 4, 5), f4), order)
    with pytest.raises((TypeError, ValueError)):
        ids.run(np.zeros((3, 4, 1), np.int32), np.zeros((3, 4, 5), f4), order)


@pytest.mark.parametrize(
    "op",
    [
        ("linear", {"input_size": 3, "output_size": 2, "weight": np.zeros((2, 2), "f4")}),
        ("linear", {"input_size": 3, "output_size": 2, "weight": np.zeros((2, 3))}),
        ("linear", {"input_size": 3, "output_size": 2}),
        ("linear", {"input_size": 3, "output_size": 2, "weight": np.zeros((2, 3), "f4"), "bias": np.zeros(3, "f4")}),
        ("conv1d", {"input_size": 1, "output_size": 1, "kernel_size": 2, "weight": np.zeros((1, 1, 1), "f4")}),
        ("embedding", {"input_size": 5, "output_size": 2, "weight": np.zeros((4, 2), "f4")}),
        ("layer_norm", {"input_size": -1}),
        ("softmax", {"input_size": 2**40}),
        ("scale", {"input_size": 3}),
    ],
)
def test_the_compiled_module_checks_operations(op):
    with pytest.raises((TypeError, ValueError)):
        _core.Model([op], None)
