"""ndarray subclasses that report false shapes, types or memory, and similar arguments: calls give correct results or
raise an exception, and never access other memory."""

import numpy as np
import pytest
from bits import assert_same_bits, poison
from cases import LAYERS, random_batch, random_spec

import fastrnn
from fastrnn import _core
from fastrnn.schedule import Schedule
from fastrnn.spec import LayerSpec

LENGTHS = (3, 0, 5, 1, 3, 5)


class Lying(np.ndarray):
    """Reports another shape, other strides and other memory than its own."""

    claimed = (1 << 20, 1 << 20, 1 << 20)

    @property
    def shape(self):
        return self.claimed[: super().ndim]

    @property
    def strides(self):
        return (1 << 30,) * super().ndim

    @property
    def size(self):
        return 1 << 60

    @property
    def ctypes(self):
        raise RuntimeError("no pointer")

    def __len__(self):
        return 1 << 20

    def __getitem__(self, key):
        return np.zeros(1, np.float32)

    def swapaxes(self, *axes):
        return np.zeros((1, 1, 1), np.float32)

    def astype(self, *args, **options):
        return np.zeros(1, np.float32)


class Widened(Lying):
    """Reports the type float64 or int64."""

    @property
    def dtype(self):
        return np.dtype(np.int64 if super().dtype.kind in "iu" else np.float64)


class Fitting(Lying):
    """Has one element, but reports the wanted shape."""

    def __len__(self):
        return self.claimed[0]


def lie(array, kind=Lying, claimed=None):
    view = np.asarray(array).view(kind)
    if claimed is not None:
        view.claimed = claimed
    return view


def tiny(kind, claimed, dtype=np.float32):
    return lie(np.zeros((1,) * len(claimed), dtype), kind, claimed)


def attempt(call):
    """The result of a call, or the exception that it raised."""
    try:
        return call()
    except (TypeError, ValueError) as error:
        assert str(error)
        return error


@pytest.fixture(params=LAYERS)
def spec(request, rng):
    return random_spec(rng, request.param, 3, 5, 2)


@pytest.fixture
def layer(spec):
    return LAYERS[spec.kind](spec)


@pytest.fixture
def batch(rng, spec):
    return random_batch(rng, spec, LENGTHS)


@pytest.mark.parametrize("kind", [Lying, Widened])
def test_subclasses_are_read_as_they_are(layer, spec, batch, kind):
    wanted = layer(batch.x, batch.state, lengths=batch.lengths)
    state = tuple(lie(part, kind) for part in batch.state) if spec.kind == "lstm" else lie(batch.state, kind)
    assert_same_bits(layer(lie(batch.x, kind), state, lengths=lie(batch.lengths, kind)), wanted)
    mask = np.arange(5) < np.array(LENGTHS)[:, None]
    assert_same_bits(layer(lie(batch.x, kind), state, mask=lie(mask, Lying)), wanted)
    rows = [batch.x[i, :n] for i, n in enumerate(LENGTHS)]
    assert_same_bits(layer([lie(row, kind) for row in rows], state), layer(rows, batch.state))
    packed = fastrnn.pack(batch.x, batch.lengths)
    parts = packed.data, packed.batch_sizes, packed.sorted_indices, packed.unsorted_indices
    assert_same_bits(layer(fastrnn.Packed(*(lie(part, kind) for part in parts)), state), layer(packed, batch.state))


@pytest.mark.parametrize("kind", [Lying, Widened])
def test_out_is_written_as_it_is(layer, batch, kind):
    memory = poison((len(LENGTHS), 5, layer.output_size))
    out = lie(memory, kind)
    y, _ = layer(batch.x, batch.state, lengths=batch.lengths, out=out)
    assert y is out
    assert_same_bits(memory, layer(batch.x, batch.state, lengths=batch.lengths)[0])


def test_out_that_only_says_it_is_large_enough(layer, batch):
    guarded = poison((64,))
    for claimed in ((6, 5, 5), (5, 6, 5)):
        out = lie(guarded[32:33].reshape(1, 1, 1), Fitting, claimed)
        with pytest.raises(ValueError, match="out"):
            layer(batch.x, lengths=batch.lengths, out=out)
    assert_same_bits(guarded, poison((64,)))


def test_small_arrays_that_say_they_are_large(layer, spec, batch):
    """Each is read by its real shape, which does not fit."""
    wanted = layer(batch.x, lengths=batch.lengths)
    x = tiny(Fitting, (6, 5, 3))
    assert isinstance(attempt(lambda: layer(x)), ValueError)
    assert isinstance(attempt(lambda: layer([tiny(Fitting, (5, 3))])), ValueError)
    h, c = tiny(Fitting, (2, 6, 5)), tiny(Fitting, (2, 6, 5))
    assert isinstance(attempt(lambda: layer(batch.x, (h, c) if spec.kind == "lstm" else h)), ValueError)
    assert isinstance(attempt(lambda: layer(batch.x, lengths=tiny(Fitting, (6,), np.int64))), ValueError)
    stream = layer.stream(6)
    assert isinstance(attempt(lambda: stream.step(tiny(Fitting, (6, 3)))), ValueError)
    assert isinstance(attempt(lambda: stream.run(x)), ValueError)
    assert isinstance(attempt(lambda: stream.set_state(h, c)), ValueError)
    assert isinstance(attempt(lambda: stream.get_state(h, c)), ValueError)
    assert_same_bits(layer(batch.x, lengths=batch.lengths), wanted)


def test_streams_read_subclasses_as_they_are(layer, batch):
    x = batch.x[:, 0].copy()
    x[np.isnan(x)] = 0
    stream, other = layer.stream(6), layer.stream(6)
    assert_same_bits(other.step(lie(x)), stream.step(x))
    assert_same_bits(other.run(lie(x[:, None])), stream.run(x[:, None]))
    rows = np.array([4, 1])
    assert_same_bits(other.step(lie(x[:2]), rows=lie(rows)), stream.step(x[:2], rows=rows))
    assert_same_bits(other.state, stream.state)


def test_weights_that_say_they_fit(rng):
    small = tiny(Fitting, (20, 3))
    good = random_spec(rng, "lstm", 3, 5).cells[0]
    for name, claimed in (
        ("weight_ih", (20, 3)),
        ("weight_hh", (20, 5)),
        ("bias_ih", (20,)),
        ("bias_hh", (20,)),
        ("peephole", (3, 5)),
    ):
        cell = {part: getattr(good, part) for part in ("weight_ih", "weight_hh")} | {name: tiny(Fitting, claimed)}
        with pytest.raises((TypeError, ValueError)):
            fastrnn.LSTM(LayerSpec("lstm", [fastrnn.spec.CellSpec(**cell)], 3, 5))
    assert small.shape == (20, 3)


# ---- The compiled module alone ---------------------------------------------------------------------------------------


@pytest.fixture
def call(layer, batch):
    """Call the compiled layer's run with valid arguments, some of them replaced."""
    order = fastrnn.schedule.schedule(np.array(LENGTHS))
    good = {
        "x": batch.x,
        "y": np.zeros((6, 5, layer.output_size), np.float32),
        "lengths": order.lengths,
        "batch_sizes": order.batch_sizes,
        "sorted_indices": order.sorted_indices,
        "h0": np.zeros((2, 6, 5), np.float32),
        "c0": None,
        "hn": np.zeros((2, 6, 5), np.float32),
        "cn": None,
        "unrolled": None,
        "past_end": "zero",
    }

    def run(**changes):
        a = good | changes
        parts = (a[name] for name in ("lengths", "sorted_indices", "sorted_indices", "batch_sizes"))
        states = (a[name] for name in ("h0", "c0", "hn", "cn"))
        return layer._engine.run(a["x"], a["y"], Schedule(*parts), *states, a["unrolled"], a["past_end"])

    run()
    return run


def test_the_compiled_module_checks_for_itself(call, layer):
    f4, f8 = np.float32, np.float64
    unwritable = np.zeros((6, 5, 5), f4)
    unwritable.flags.writeable = False
    unaligned = np.zeros(6 * 5 * 3 * 4 + 1, np.uint8)[1:].view(f4).reshape(6, 5, 3)
    other = fastrnn.LSTM(random_spec(np.random.default_rng(0), "lstm", 3, 5)).unroll(5)._unrolled
    arrays = {
        "x": [
            np.zeros((6, 5, 3), f8),
            np.zeros((6, 4, 3), f4),
            np.zeros((5, 5, 3), f4),
            np.zeros((6, 5, 2), f4),
            np.zeros((6, 5), f4),
            np.zeros((6, 5, 6), f4)[..., ::2],
            np.zeros((6, 5, 3), ">f4"),
            unaligned,
            [np.zeros((5, 3), f4)] * 5,
            [np.zeros((4, 3), f4)] * 6,
            [np.zeros((5, 2), f4)] * 6,
            ["text"] * 6,
            None,
            "text",
        ],
        "y": [np.zeros((6, 5, 4), f4), np.zeros((6, 4, 5), f4), unwritable, [np.zeros((5, 5), f4)] * 5, None],
        "lengths": [np.zeros(5, np.int64), np.zeros(6, np.int32), [5] * 6, None, np.arange(12)[::2]],
        "batch_sizes": [np.zeros(4, np.int64), np.zeros(6, np.int64), np.full(5, 6), None],
        "sorted_indices": [np.arange(5), np.arange(1, 7), np.arange(-1, 5), np.arange(6.0), [0] * 6],
        "h0": [np.zeros((2, 5, 5), f4), np.zeros((2, 6, 5), f8), np.zeros((2, 6, 10), f4)[..., ::2], "text"],
        "c0": [np.zeros((2, 5, 5), f4)],
        "hn": [np.zeros((2, 5, 5), f4), unwritable[:2]],
        "cn": [np.zeros((2, 5, 5), f4)],
        "unrolled": [other, "text"],
    }
    for name, bad in arrays.items():
        for value in bad:
            with pytest.raises((TypeError, ValueError)):
                call(**{name: value})
    for name, claimed in (("x", (6, 5, 3)), ("y", (6, 5, 5)), ("h0", (2, 6, 5)), ("hn", (2, 6, 5))):
        with pytest.raises((TypeError, ValueError)):
            call(**{name: tiny(Fitting, claimed)})
    for name in ("lengths", "batch_sizes", "sorted_indices"):
        with pytest.raises((TypeError, ValueError)):
            call(**{name: tiny(Fitting, (6,), np.int64)})


def test_the_compiled_module_checks_packed_steps(call, layer):
    total = sum(LENGTHS)
    x, y = np.zeros((total, 3), np.float32), np.zeros((total, layer.output_size), np.float32)
    call(x=x, y=y, past_end=None)
    for bad in (np.array([6, 4, 3, 2, 2**62]), np.array([6, 4, 3, -2, 1]), np.array([6, 6, 6, 6, 6])):
        with pytest.raises(ValueError, match="batch_sizes"):
            call(x=x, y=y, batch_sizes=bad, past_end=None)
    for changes in (
        {"x": x[:-1]},
        {"y": y[:-1]},
        {"x": x[:, :2]},
        {"past_end": "carry"},
        {"y": np.zeros((6, 5, 5), "f4")},
    ):
        with pytest.raises(ValueError):
            call(**({"x": x, "y": y, "past_end": None} | changes))


def test_the_number_of_cells_is_checked(rng):
    spec = random_spec(rng, "rnn", 3, 5)
    cells = LAYERS["rnn"](spec)._engine.unpack()
    for count in (0, 2, 3):
        with pytest.raises(ValueError, match=f"cells has {count} entries, wanted 1"):
            _core.Layer("rnn", np.float32, 3, 5, 0, 1, False, False, None, cells * count, None, False)


def test_cells_of_any_iterable(rng):
    spec = random_spec(rng, "gru", 3, 5, 2)
    x = np.ones((2, 4, 3), np.float32)
    once = LayerSpec("gru", (cell for cell in spec.cells), 3, 5, 2)
    for _ in range(2):
        assert_same_bits(fastrnn.GRU(once)(x), fastrnn.GRU(spec)(x))
    cells = list(spec.cells)
    kept = LayerSpec("gru", cells, 3, 5, 2)
    cells.clear()
    assert_same_bits(fastrnn.GRU(kept)(x), fastrnn.GRU(spec)(x))

    class Longer(list):
        def __len__(self):
            return 2

    with pytest.raises(ValueError, match="cells has 1 entries"):
        fastrnn.GRU(LayerSpec("gru", Longer(spec.cells[:1]), 3, 5, 2))
