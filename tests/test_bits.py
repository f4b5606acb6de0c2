"""A row has the same bits alone, in any batch, in any order, in chunks, next to NaN and on any path."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from bits import MODELS, arrays_of, assert_same_bits, poison, rows_of_state
from cases import LAYERS, random_batch, random_spec

import fastrnn
from fastrnn import _core

BEST = _core.available_isas()[0]
LENGTHS = (4, 0, 9, 1, 4, 9, 2, 1)
SMALL = range(1, 66)
LARGE = (127, 200, 257)
BACKENDS = {
    "fused": ("fused", np.float32, None),
    "int8": ("fused", np.float32, "int8"),
    "blas": ("blas", np.float32, None),
    "blas-float64": ("blas", np.float64, None),
}

every_model = pytest.mark.parametrize("name", MODELS)
every_direction = pytest.mark.parametrize("bidirectional", [False, True], ids=["forward", "bidirectional"])
every_backend = pytest.mark.parametrize("backend", BACKENDS)


def make_spec(rng, name, hidden_size, bidirectional, input_size=None, num_layers=1, dtype=np.float32):
    kind, options = MODELS[name]
    input_size = (hidden_size * 7) % 65 + 1 if input_size is None else input_size
    if "proj_size" in options:
        options = {"proj_size": hidden_size // 2 + 1}
    return random_spec(rng, kind, input_size, hidden_size, num_layers, bidirectional, dtype=dtype, **options)


def make(rng, name, hidden_size, bidirectional, backend="fused", isa=None, **sizes):
    """A layer and its specification."""
    engine, dtype, weight_dtype = BACKENDS[backend]
    spec = make_spec(rng, name, hidden_size, bidirectional, dtype=dtype, **sizes)
    return LAYERS[spec.kind](spec, backend=engine, isa=isa, weight_dtype=weight_dtype), spec


def assert_rows_stand_alone(layer, rng, spec, lengths=LENGTHS):
    """Compare a ragged batch with its rows alone, in another order, and at full length with others."""
    batch = random_batch(rng, spec, lengths, layer.dtype)
    x, state, lengths = batch.x, batch.state, np.array(lengths)
    y, last = layer(x, state, lengths=lengths)
    message = f"{layer} lengths {lengths}"
    for row, length in enumerate(lengths):
        alone, alone_last = layer(x[row : row + 1, :length], rows_of_state(state, [row]))
        assert_same_bits(y[row, :length], alone[0], message)
        assert_same_bits(rows_of_state(last, [row]), alone_last, message)
        assert not y[row, length:].any(), message
    for count in (len(lengths), len(lengths) // 2, 3):
        order = rng.permutation(len(lengths))[:count]
        part, part_last = layer(x[order], rows_of_state(state, order), lengths=lengths[order])
        assert_same_bits(part, y[order], message)
        assert_same_bits(part_last, rows_of_state(last, order), message)
    longest = lengths == lengths.max()
    full, full_last = layer(x[longest], rows_of_state(state, longest))
    assert_same_bits(full, y[longest], message)
    assert_same_bits(full_last, rows_of_state(last, longest), message)


@every_direction
@every_model
def test_a_row_alone_equals_it_in_a_batch_at_every_small_size(rng, name, bidirectional):
    for size in SMALL:
        layer, spec = make(rng, name, size, bidirectional, isa=BEST)
        assert_rows_stand_alone(layer, rng, spec)


@every_direction
@every_model
def test_a_row_alone_equals_it_in_a_batch_on_every_isa(rng, isa, name, bidirectional):
    for size in (1, 3, 7, 8, 9, 15, 16, 17, 31, 33, 48, 64, 65):
        layer, spec = make(rng, name, size, bidirectional, isa=isa)
        assert_rows_stand_alone(layer, rng, spec)


@pytest.mark.parametrize("size", LARGE)
@every_model
def test_a_row_alone_equals_it_in_a_batch_at_large_sizes(rng, isa, name, size):
    layer, spec = make(rng, name, size, True, input_size=64, isa=isa)
    assert_rows_stand_alone(layer, rng, spec, (3, 0, 5, 1, 5))


@pytest.mark.parametrize("backend", ["blas", "blas-float64"])
@every_direction
@every_model
def test_a_row_alone_equals_it_in_a_batch_through_blas(rng, name, bidirectional, backend):
    for size in (1, 2, 7, 16, 17, 33, 64, 65, 127, 200):
        layer, spec = make(rng, name, size, bidirectional, backend)
        assert_rows_stand_alone(layer, rng, spec)


@every_backend
@every_direction
@every_model
def test_a_row_alone_equals_it_in_stacked_layers(rng, name, bidirectional, backend):
    for num_layers in (2, 3):
        layer, spec = make(rng, name, 20, bidirectional, backend, num_layers=num_layers)
        assert_rows_stand_alone(layer, rng, spec)


@every_backend
@every_model
def test_every_batch_size(rng, name, backend):
    """Rows at every position in a register block, and long enough for inputs to be projected ahead."""
    layer, spec = make(rng, name, 19, False, backend)
    batch = random_batch(rng, spec, (12,) * 33, layer.dtype)
    y, last = layer(batch.x, batch.state)
    for size in range(1, 33):
        part, part_last = layer(batch.x[-size:], rows_of_state(batch.state, slice(-size, None)))
        assert_same_bits(part, y[-size:], f"{size} rows")
        assert_same_bits(part_last, rows_of_state(last, slice(-size, None)), f"{size} rows")


@every_model
def test_a_long_row_equals_it_in_a_batch_and_in_chunks(rng, isa, name):
    """Long enough for several blocks of projected inputs."""
    layer, spec = make(rng, name, 40, False, isa=isa)
    batch = random_batch(rng, spec, (700, 31, 700, 299))
    y, last = layer(batch.x, batch.state, lengths=batch.lengths)
    alone, alone_last = layer(batch.x[2:3], rows_of_state(batch.state, [2]))
    assert_same_bits(alone[0], y[2])
    assert_same_bits(alone_last, rows_of_state(last, [2]))
    stream = layer.stream()
    stream.state = rows_of_state(batch.state, [2])
    chunks = [stream.run(batch.x[2:3, a:b]) for a, b in ((0, 1), (1, 300), (300, 300), (300, 699), (699, 700))]
    assert_same_bits(np.concatenate(chunks, 1), alone)
    assert_same_bits(stream.state, alone_last)


@every_backend
@every_model
def test_whole_equals_chunks_at_every_small_size(rng, name, backend):
    for size in SMALL if backend == "fused" else (1, 8, 17, 65):
        layer, spec = make(rng, name, size, False, backend)
        assert_chunks_equal_whole(layer, rng, spec)


@every_model
def test_whole_equals_chunks_on_every_isa(rng, isa, name):
    for size in (1, 7, 9, 16, 33, 65, 127):
        layer, spec = make(rng, name, size, False, isa=isa, num_layers=2)
        assert_chunks_equal_whole(layer, rng, spec)


def assert_chunks_equal_whole(layer, rng, spec):
    """Cut a sequence in several ways: into steps, runs, and calls of the layer."""
    batch = random_batch(rng, spec, (6, 6, 6), layer.dtype)
    y, last = layer(batch.x, batch.state)
    stream = layer.stream(3)
    stream.state = batch.state
    stepped = np.stack([stream.step(batch.x[:, t]) for t in range(6)], 1)
    assert_same_bits((stepped, stream.state), (y, last), f"{layer} in steps")
    cuts = [0, *sorted(rng.integers(0, 7, 3)), 6]
    stream.state = batch.state
    chunked = np.concatenate([stream.run(batch.x[:, a:b]) for a, b in itertools.pairwise(cuts)], 1)
    assert_same_bits((chunked, stream.state), (y, last), f"{layer} cut at {cuts}")
    state, pieces = batch.state, []
    for a, b in itertools.pairwise(cuts):
        piece, state = layer(batch.x[:, a:b], state)
        pieces.append(piece)
    assert_same_bits((np.concatenate(pieces, 1), state), (y, last), f"{layer} cut at {cuts}")


@every_backend
@every_direction
@every_model
def test_any_number_of_threads(rng, name, bidirectional, backend):
    layer, spec = make(rng, name, 24, bidirectional, backend, num_layers=2)
    batch = random_batch(rng, spec, LENGTHS, layer.dtype)
    before, results = fastrnn.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 8):
            _core.set_num_threads(threads, 0)  # batches as small as this one are shared too
            results.append(layer(batch.x, batch.state, lengths=batch.lengths))
    finally:
        fastrnn.set_num_threads(before)
    for result in results[1:]:
        assert_same_bits(result, results[0])


@every_model
def test_slices_that_a_team_runs_one_after_the_other(rng, name):
    """Many rows, but few still running: all threads run one slice, then the next, which has one row less."""
    layer, spec = make(rng, name, 24, False, "fused", num_layers=2)
    batch = random_batch(rng, spec, np.append(np.arange(301) % 2, 9), layer.dtype)
    before, results = fastrnn.get_num_threads(), []
    try:
        for threads in (1, 3):
            _core.set_num_threads(threads, 0)
            results.append(layer(batch.x, batch.state, lengths=batch.lengths))
    finally:
        fastrnn.set_num_threads(before)
    assert_same_bits(results[1], results[0])


@pytest.mark.parametrize("garbage", [np.nan, np.inf, -np.inf, 3e38])
@every_backend
@every_direction
@every_model
def test_rows_of_garbage_change_nothing(rng, name, bidirectional, backend, garbage):
    layer, spec = make(rng, name, 21, bidirectional, backend, num_layers=2)
    batch = random_batch(rng, spec, LENGTHS, layer.dtype)
    y, last = layer(batch.x, batch.state, lengths=batch.lengths)
    dirty = np.array([0, 2, 6])
    clean = np.setdiff1d(np.arange(len(LENGTHS)), dirty)
    x = batch.x.copy()
    x[dirty] = garbage
    for part in arrays_of(batch.state):
        part[:, dirty] = garbage
    found, found_last = layer(x, batch.state, lengths=batch.lengths)
    assert_same_bits(found[clean], y[clean])
    assert_same_bits(rows_of_state(found_last, clean), rows_of_state(last, clean))


@every_backend
@every_direction
@every_model
def test_padded_list_and_packed(rng, name, bidirectional, backend):
    for size in (3, 16, 37):
        layer, spec = make(rng, name, size, bidirectional, backend, num_layers=2)
        batch = random_batch(rng, spec, LENGTHS, layer.dtype)
        y, last = layer(batch.x, batch.state, lengths=batch.lengths)
        rows, rows_last = layer([row[:n] for row, n in zip(batch.x, LENGTHS, strict=True)], batch.state)
        assert_same_bits(rows, [row[:n] for row, n in zip(y, LENGTHS, strict=True)])
        assert_same_bits(rows_last, last)
        packed, packed_last = layer(fastrnn.pack(batch.x, LENGTHS), batch.state)
        assert_same_bits(fastrnn.unpack(packed)[0], y)
        assert_same_bits(packed_last, last)


@every_direction
@every_model
def test_batch_first_or_not(rng, name, bidirectional):
    layer, spec = make(rng, name, 18, bidirectional, num_layers=2)
    time_major = LAYERS[spec.kind](replace(spec, batch_first=False))
    batch = random_batch(rng, spec, LENGTHS)
    y, last = layer(batch.x, batch.state, lengths=batch.lengths)
    for x in (batch.x.swapaxes(0, 1), batch.x.swapaxes(0, 1).copy()):
        found, found_last = time_major(x, batch.state, lengths=batch.lengths)
        assert_same_bits(found.swapaxes(0, 1), y)
        assert_same_bits(found_last, last)


@every_backend
@every_direction
@every_model
def test_unrolled_equals_packed_path(rng, name, bidirectional, backend):
    for size in (1, 16, 33):
        for rows, steps in ((1, 1), (1, 9), (7, 5), (3, 0), (0, 3), (20, 40)):
            layer, spec = make(rng, name, size, bidirectional, backend, num_layers=2)
            batch = random_batch(rng, spec, (steps,) * rows, layer.dtype)
            x = np.zeros((rows, steps, spec.input_size), layer.dtype) if rows == 0 else batch.x
            assert_same_bits(layer.unroll(steps)(x, batch.state), layer(x, batch.state), f"{rows} x {steps}")


@every_model
def test_unrolled_equals_packed_path_on_every_isa(rng, isa, name):
    layer, spec = make(rng, name, 23, True, isa=isa, num_layers=2)
    batch = random_batch(rng, spec, (6,) * 7)
    assert_same_bits(layer.unroll(6)(batch.x, batch.state), layer(batch.x, batch.state))


@pytest.mark.parametrize("past_end", ["zero", "carry"])
@every_backend
@every_direction
@every_model
def test_poison_in_out_never_shows(rng, name, bidirectional, backend, past_end):
    for size in (1, 5, 16, 33):
        layer, spec = make(rng, name, size, bidirectional, backend, num_layers=2)
        batch = random_batch(rng, spec, LENGTHS, layer.dtype)
        for lengths in (LENGTHS, None):
            x = np.nan_to_num(batch.x) if lengths is None else batch.x
            wanted = layer(x, batch.state, lengths=lengths, past_end=past_end)
            out = poison(wanted[0].shape, layer.dtype)
            found = layer(x, batch.state, lengths=lengths, past_end=past_end, out=out)
            assert found[0] is out
            assert np.isfinite(out).all()
            assert_same_bits(found, wanted)


def sprinkle_nans(rng, *arrays):
    """Put NaNs of either sign and any payload, signalling ones too, in a tenth of the elements."""
    for array in arrays:
        bits = array.view(f"u{array.itemsize}")
        exponent = np.array(np.inf, array.dtype).view(bits.dtype)
        sign = bits.dtype.type(1 << (8 * array.itemsize - 1))
        payload = rng.integers(1, 1 << 20, array.shape).astype(bits.dtype) << bits.dtype.type(2)
        drawn = exponent | payload | sign * rng.integers(0, 2, array.shape).astype(bits.dtype)
        np.copyto(bits, drawn, where=rng.random(array.shape) < 0.1)


def assert_nans_have_the_same_bits(layer, rng, spec):
    batch = random_batch(rng, spec, (5,) * 33, layer.dtype)
    x = np.nan_to_num(batch.x)
    sprinkle_nans(rng, x, *arrays_of(batch.state))
    y, last = layer(x, batch.state)
    assert np.isnan(y).any()
    for size in range(1, 33):
        part, part_last = layer(x[-size:], rows_of_state(batch.state, slice(-size, None)))
        assert_same_bits(part, y[-size:], f"{size} rows")
        assert_same_bits(part_last, rows_of_state(last, slice(-size, None)), f"{size} rows")


def with_nans_in_vectors(rng, spec):
    """The specification with NaNs in a tenth of its biases and peepholes."""
    cells = []
    for cell in spec.cells:
        arrays = {
            name: getattr(cell, name).copy()
            for name in ("bias_ih", "bias_hh", "peephole")
            if getattr(cell, name) is not None
        }
        sprinkle_nans(rng, *arrays.values())
        cells.append(replace(cell, **arrays))
    return replace(spec, cells=cells)


@pytest.mark.parametrize("size", [1, 5, 16, 19])
@every_model
def test_nans_have_the_same_bits_whoever_shares_the_batch(rng, isa, name, size):
    """The compiler chooses which of two NaNs an operation returns; results must not depend on it."""
    layer, spec = make(rng, name, size, False, isa=isa, input_size=7)
    assert_nans_have_the_same_bits(layer, rng, spec)
    spec = with_nans_in_vectors(rng, spec)
    assert_nans_have_the_same_bits(LAYERS[spec.kind](spec, isa=isa), rng, spec)


@pytest.mark.parametrize("backend", ["blas", "blas-float64"])
@every_model
def test_nans_have_the_same_bits_through_blas(rng, name, backend):
    layer, spec = make(rng, name, 19, False, backend, input_size=7)
    assert_nans_have_the_same_bits(layer, rng, spec)


@pytest.mark.parametrize("num_steps", [1, 3], ids=["x-in-the-step", "x-ahead"])
@pytest.mark.parametrize("kind", LAYERS)
def test_large_weights_in_chunks(rng, isa, kind, num_steps):
    """Panels of weights that are divided into chunks for the rows of a batch give a row the bits that it has alone."""
    layer = LAYERS[kind](random_spec(rng, kind, 517, 520), isa=isa)
    for num_rows in (7, 13, 37, 80):
        x = rng.standard_normal((num_rows, num_steps, 517)).astype(np.float32)
        y, _ = layer(x)
        for row in (0, num_rows // 2, num_rows - 1):
            assert_same_bits(y[row], layer(x[row : row + 1])[0][0])
