"""Live streams of models: chunks of any size, rows, snapshots, copies, refusals."""

import copy
import pickle

import numpy as np
import pytest
from bits import assert_same_bits, poison
from cases import random_spec
from model_cases import conv1d, draw, linear, random_model, random_rows, recurrent, text

import fastrnn
from fastrnn import Sequential, _core
from fastrnn.models import ops
from fastrnn.models.spec import ModelSpec

ROWS, STEPS = 3, 24


def chain(seed, stride=None):
    """A random model that streams, inputs (B, T, ...) and its results."""
    rng = np.random.default_rng(seed)
    while True:
        model = Sequential.from_spec(random_model(rng, streams=True))
        if stride is None or (model.stride > 1) == stride:
            break
    T = STEPS // model.stride * model.stride if STEPS // model.stride else model.stride * 2
    x = np.stack(random_rows(rng, model.spec, (T,) * ROWS))
    return rng, model, x, model(x)


def masked_model(rng):
    forward = random_spec(rng, "gru", 6, 5)
    return Sequential(ops.Embedding(draw(rng, 9, 6), mask_zero=True), forward, linear(rng, 5, 3))


@pytest.mark.parametrize("seed", range(12))
def test_chunks_have_the_bits_of_the_whole(isa, seed):
    for number in range(3):
        rng, model, x, _ = chain(100 * seed + number)
        model = Sequential.from_spec(model.spec, isa=isa)
        y = model(x)
        stream, s = model.stream(ROWS), model.stride
        assert stream.batch_size == ROWS
        cuts = np.sort(rng.integers(0, x.shape[1] // s + 1, 4)) * s
        parts = [stream.run(part) for part in np.split(x, cuts, axis=1)]
        assert_same_bits(np.concatenate(parts, axis=1), y, text(model.spec))


@pytest.mark.parametrize("seed", range(6))
def test_steps_have_the_bits_of_the_whole(isa, seed):
    _, model, x, y = chain(seed, stride=False)
    model = Sequential.from_spec(model.spec, isa=isa)
    y = model(x)
    stream = model.stream(ROWS)
    found = np.stack([stream.step(x[:, t]) for t in range(x.shape[1])], axis=1)
    assert_same_bits(found, y, text(model.spec))


@pytest.mark.parametrize("seed", range(6))
def test_rows_have_states_of_their_own(seed):
    rng, model, x, y = chain(seed)
    s = model.stride
    stream = model.stream(ROWS)
    done = [0] * ROWS
    found = poison(y.shape)
    for _ in range(40):
        rows = rng.permutation(ROWS)[: rng.integers(1, ROWS + 1)]
        steps = min(int(rng.integers(0, 4)) * s, *(x.shape[1] - done[row] for row in rows))
        part = np.stack([x[row, done[row] : done[row] + steps] for row in rows])
        for row, result in zip(rows, stream.run(part, rows=rows), strict=True):
            found[row, done[row] // s : (done[row] + steps) // s] = result
            done[row] += steps
    for row in range(ROWS):
        assert_same_bits(found[row, : done[row] // s], y[row, : done[row] // s], text(model.spec))
    stream.reset(rows=[1])
    assert_same_bits(stream.run(x[1:2], rows=[1]), y[1:2])
    stream.reset()
    assert_same_bits(stream.run(x), y)


def test_a_new_stream_reads_zeros_before_the_first_step(rng):
    op = conv1d(rng, 3, 4, causal=True, stride=1, dilation=2)
    x = rng.standard_normal((2, 5, 3)).astype("f4")
    stream = Sequential(op).stream(2)
    assert_same_bits(stream.run(x), Sequential(op)(x))


@pytest.mark.parametrize("seed", range(6))
def test_snapshots_copies_and_pickles(seed):
    rng, model, x, y = chain(seed)
    s = model.stride
    cut = int(rng.integers(0, x.shape[1] // s + 1)) * s
    stream = model.stream(ROWS)
    stream.run(x[:, :cut])
    snapshot = stream.snapshot()
    others = [copy.copy(stream), copy.deepcopy(stream), pickle.loads(pickle.dumps(stream))]
    restored = pickle.loads(pickle.dumps(model)).stream(ROWS)
    restored.restore(snapshot)
    stream.reset()
    assert_same_bits(stream.run(x), y)
    for other in (*others, restored):
        assert other.snapshot() == snapshot
        assert_same_bits(other.run(x[:, cut:]), y[:, cut // s :], text(model.spec))
    stream.restore(snapshot)
    assert_same_bits(stream.run(x[:, cut:]), y[:, cut // s :])


def test_a_snapshot_restores_on_every_isa(rng):
    spec = ModelSpec([conv1d(rng, 3, 5, causal=True, stride=1), recurrent(rng, 5, 17, forward=True)])
    x = rng.standard_normal((2, 7, 3)).astype("f4")
    best = Sequential.from_spec(spec).stream(2)
    best.run(x[:, :4])
    for isa in _core.available_isas():
        model = Sequential.from_spec(spec, isa=isa)
        stream = model.stream(2)
        stream.restore(best.snapshot())
        assert stream.snapshot() == best.snapshot()
        np.testing.assert_allclose(stream.run(x[:, 4:]), model(x)[:, 4:], atol=1e-5)


def test_snapshots_that_do_not_fit_are_refused(rng):
    model = Sequential(conv1d(rng, 3, 5, causal=True), linear(rng, 5, 4))
    other = Sequential(conv1d(rng, 3, 5, causal=True), linear(rng, 5, 4))
    layer = fastrnn.GRU(random_spec(rng, "gru", 3, 5))
    stream = model.stream(2)
    before = stream.snapshot()
    for snapshot, message in (
        (b"", "0 bytes and not a snapshot"),
        (other.stream(2).snapshot(), "of a model with other options or weights"),
        (layer.stream(2).snapshot(), "of a model with other options or weights"),
        (model.stream(3).snapshot(), "of 3 rows, wanted 2"),
        (before[:-1], "snapshot"),
        (before + b"x", "snapshot"),
    ):
        with pytest.raises(ValueError, match=message):
            stream.restore(snapshot)
    with pytest.raises(ValueError, match="of a layer with other options or weights"):
        layer.stream(2).restore(before)
    assert stream.snapshot() == before


def test_what_cannot_stream_is_named(rng):
    forward, both = random_spec(rng, "lstm", 4, 4), random_spec(rng, "gru", 4, 2, bidirectional=True)
    for bad, message in (
        (both, r"ops\[1\] \(GRU\) cannot run in a stream: it has the reverse direction"),
        (ops.Reverse(), r"ops\[1\] \(Reverse\) cannot run in a stream: it needs all steps"),
        (ops.Last(), r"ops\[1\] \(Last\) cannot run"),
        (ops.First(), r"ops\[1\] \(First\) cannot run"),
        (ops.Mean(), r"ops\[1\] \(Mean\) cannot run"),
        (ops.Final(), r"ops\[1\] \(Final\) cannot run"),
        (ops.Conv1d(draw(rng, 4, 4, 3), padding="same"), r"ops\[1\] \(Conv1d\) .* \(1, 1\), wanted \(2, 0\)"),
        (ops.Conv1d(draw(rng, 4, 4, 3)), r"ops\[1\] \(Conv1d\) .* \(0, 0\), wanted \(2, 0\)"),
    ):
        model = Sequential(forward, bad)
        assert not model.streams
        with pytest.raises(ValueError, match=message):
            model.stream()
    assert Sequential(forward, ops.Conv1d(draw(rng, 4, 4, 1)), ops.Softmax()).streams


def test_strides_need_whole_chunks(rng):
    model = Sequential(conv1d(rng, 3, 4, causal=True, stride=2), conv1d(rng, 4, 4, causal=True, stride=3))
    stream = model.stream(2)
    before = stream.snapshot()
    with pytest.raises(ValueError, match="x has 8 steps, wanted a multiple of 6"):
        stream.run(np.zeros((2, 8, 3), "f4"))
    with pytest.raises(ValueError, match=r"strides multiply to 6, wanted run\(\) with a multiple of 6 steps"):
        stream.step(np.zeros((2, 3), "f4"))
    assert stream.snapshot() == before
    assert stream.run(np.zeros((2, 0, 3), "f4")).shape == (2, 0, 4)


def test_ids_in_a_stream(rng):
    model = Sequential(ops.Embedding(draw(rng, 9, 6)), random_spec(rng, "lstm", 6, 5))
    ids = rng.integers(0, 9, (2, 7))
    y = model(ids)
    stream = model.stream(2)
    assert_same_bits(stream.run(ids[:, :3].astype("u1")), y[:, :3])
    assert_same_bits(stream.step(ids[:, 3].tolist()), y[:, 3])
    before = stream.snapshot()
    for call, error, message in (
        (lambda: stream.run([[1, 2], [9, 1]]), ValueError, r"x\[1, 0\] is 9, but the embedding has 9 rows"),
        (lambda: stream.step([1, -1]), ValueError, r"x\[1\] is -1, but"),
        (lambda: stream.step([1, 1.0]), TypeError, "x is of type float64, wanted integers"),
        (lambda: stream.step([1]), ValueError, r"x has shape \(1,\), wanted \(2,\)"),
        (lambda: stream.run([1, 1]), ValueError, r"x has shape \(2,\), wanted \(2, T\)"),
        (lambda: stream.step([1], rows=[2]), ValueError, r"rows\[0\] is 2, but the stream has 2 rows"),
        (lambda: stream.step([1, 1], rows=[1, 1]), ValueError, "rows names row 1 twice"),
    ):
        with pytest.raises(error, match=message):
            call()
    assert stream.snapshot() == before
    assert_same_bits(stream.run(ids[:, 4:]), y[:, 4:])


def test_mask_zero_leaves_the_state_alone(rng):
    model = masked_model(rng)
    ids = rng.integers(1, 9, (3, 8))
    ids[0, 2] = ids[1, :3] = ids[2, 5:] = 0
    y = model(ids)
    stream = model.stream(3)
    assert_same_bits(stream.run(ids[:, :3]), y[:, :3])
    assert_same_bits(stream.step(ids[:, 3]), y[:, 3])
    assert_same_bits(stream.run(ids[[2, 0], 4:], rows=[2, 0]), y[[2, 0], 4:])
    before = stream.snapshot()
    for call, message in (
        (lambda: stream.run([[0, 1], [1, 9], [1, 1]]), r"x\[1, 1\] is 9"),
        (lambda: stream.step([0, 1]), r"x has shape \(2,\)"),
        (lambda: stream.step([0, 1], rows=[0, 0]), "row 0 twice"),
        (lambda: stream.step([0, 1], rows=[0, 3]), r"rows\[1\] is 3"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    assert stream.snapshot() == before
    strided = Sequential(ops.Embedding(draw(rng, 9, 6), mask_zero=True), conv1d(rng, 6, 5, causal=True, stride=2))
    with pytest.raises(ValueError, match=r"x has the id 0, which mask_zero leaves out, but .* stride 2"):
        strided.stream(1).run([[1, 0]])


def test_wrong_inputs_leave_the_state_alone(rng):
    model = Sequential(recurrent(rng, 3, 5, forward=True), linear(rng, 5, 4))
    stream = model.stream(2)
    stream.run(rng.standard_normal((2, 3, 3)).astype("f4"))
    before = stream.snapshot()
    for call, error, message in (
        (lambda: stream.step(np.zeros((2, 4), "f4")), ValueError, r"x has shape \(2, 4\), wanted \(2, 3\)"),
        (lambda: stream.run(np.zeros((2, 3), "f4")), ValueError, r"x has shape \(2, 3\), wanted \(2, T, 3\)"),
        (lambda: stream.step(np.zeros((2, 3))), TypeError, "x is float64, wanted float32"),
        (lambda: stream.reset(rows=[5]), ValueError, r"rows\[0\] is 5"),
        (lambda: stream.reset(rows=[1, 1]), ValueError, "row 1 twice"),
    ):
        with pytest.raises(error, match=message):
            call()
    assert stream.snapshot() == before
    assert stream.step(np.zeros((2, 3)), casting="same_kind").shape == (2, 4)


def test_an_empty_stream(rng):
    model = Sequential(recurrent(rng, 3, 5, forward=True), conv1d(rng, 5, 4, causal=True, stride=1))
    stream = model.stream(0)
    assert stream.run(np.zeros((0, 4, 3), "f4")).shape == (0, 4, 4)
    assert stream.step(np.zeros((0, 3), "f4")).shape == (0, 4)
