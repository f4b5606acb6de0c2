"""Layers with int8 weights: their integers, every step against the reference, the same bits on every path.

The bits of a row in any batch, chunk and number of threads are in test_bits.py, too.
"""

from dataclasses import replace

import numpy as np
import pytest
from bits import MODELS, arrays_of, assert_same_bits, rows_of_state
from cases import LAYERS, random_batch, random_options, random_spec

import fastrnn
from fastrnn import _core, int8_weights, reference
from fastrnn.spec import WEIGHTS, Activation

ISAS = _core.available_isas("int8")
TINY = np.finfo(np.float32).tiny
HUGE = np.finfo(np.float32).max

every_isa = pytest.mark.parametrize("isa", ISAS)
every_model = pytest.mark.parametrize("name", MODELS)


def int8_layer(spec, isa=None):
    return LAYERS[spec.kind](spec, isa=isa, weight_dtype="int8")


def awkward_rows(rng, count, width):
    """Usual numbers, zeros, ties, subnormal and huge numbers, and next to each other large and tiny ones."""
    rows = rng.standard_normal((count, width)).astype(np.float32)
    rows[0::9] = 0
    rows[1::9] *= 1e-40
    rows[2::9, ::2] *= 1e-37
    rows[3::9] *= 1e36
    rows[4::9] = rng.integers(-127, 128, rows[4::9].shape) + 0.5 * (np.arange(width) > 0)
    rows[5::9] = np.where(rows[5::9] > 0, TINY, -127 * TINY)
    rows[6::9] = np.where(rows[6::9] > 0, HUGE / 16, -HUGE / 16)
    return rows


# Weights


@pytest.mark.parametrize("width", [0, 1, 2, 3, 4, 5, 16, 33])
def test_weights_are_rounded_as_in_the_core(rng, width):
    weights = awkward_rows(rng, 40, width)
    if width:
        weights[7] = np.where(np.arange(width) == width - 1, HUGE, 1)
    q, scales = int8_weights.quantize(weights)
    assert q.dtype == np.int8 and scales.dtype == np.float32 and not int8_weights.faults("w", q, scales)
    assert np.all(scales >= TINY) and not np.any(scales.view("u4") & 0x7F)
    wide = int8_weights.widen(q, scales)
    assert np.array_equal(wide, q * scales.astype(np.float64)[:, None]), "scale * q is exact"
    assert np.all(np.abs(weights - wide.astype(np.float64)) <= scales[:, None] * 0.501)
    for again in int8_weights.quantize(wide), int8_weights.quantize(wide.astype(np.float64)):
        assert np.array_equal(again[0], q) and np.array_equal(again[1], scales)
    spec = random_spec(rng, "rnn", width, 40)
    spec.cells[0].weight_ih[:] = weights
    layer = int8_layer(spec)
    unpacked = layer._unpack().cells[0]
    assert np.array_equal(unpacked.weight_ih, wide)
    assert np.array_equal(unpacked.bias_ih, spec.cells[0].bias_ih + spec.cells[0].bias_hh)
    assert int8_layer(layer._unpack())._engine.fingerprint == layer._engine.fingerprint


def test_biases_and_peepholes_stay(rng):
    spec = random_spec(rng, "lstm", 3, 5, proj_size=2, peephole=True)
    cell = int8_layer(spec)._unpack().cells[0]
    for part in WEIGHTS:
        wanted = int8_weights.widen(*int8_weights.quantize(getattr(spec.cells[0], part)))
        assert np.array_equal(getattr(cell, part), wanted)
    assert np.array_equal(cell.peephole, spec.cells[0].peephole)


# Integers, exactly


def without_flushed(values):
    """Kernels flush subnormal results to zero."""
    return np.where(np.abs(values) < TINY, np.float32(0), values)


@every_isa
@pytest.mark.parametrize("num_steps", [1, 12])
def test_sums_are_those_of_integers(rng, isa, num_steps):
    """y is a product alone, so that every integer and both scales show in its bits."""
    for width, units in ((1, 1), (3, 5), (4, 16), (5, 17), (16, 33), (67, 70), (130, 8)):
        spec = random_spec(rng, "rnn", width, units, bias=False, activations=(Activation.of("linear"),))
        (cell,) = spec.cells
        cell.weight_hh[:] = 0
        cell.weight_ih[:] = awkward_rows(rng, units + 1, width)[1:]
        np.clip(cell.weight_ih, -1e30, 1e30, out=cell.weight_ih)
        x = awkward_rows(rng, 13 * num_steps, width).reshape(13, num_steps, width)
        np.clip(x, -1e6, 1e6, out=x)
        y, _ = int8_layer(spec, isa)(x)
        weights = reference.Int8Matrix(cell.weight_ih)
        for row, wanted in zip(x.reshape(-1, width), y.reshape(-1, units), strict=True):
            q, scale = reference.quantize(row)
            sums = (weights.q.astype(np.int64) @ q).astype(np.float32)
            np.testing.assert_array_equal(wanted, without_flushed(sums * scale * weights.scales))


@every_isa
def test_the_largest_sums_do_not_overflow(isa):
    k = int8_weights.MOST_COLUMNS
    weights = np.ones((3, k), np.float32)
    weights[1] *= -1
    cell = fastrnn.CellSpec(weights, np.zeros((3, 3), np.float32), activations=(Activation.of("linear"),))
    layer = int8_layer(fastrnn.LayerSpec("rnn", [cell], k, 3), isa)
    y, _ = layer(np.concatenate([np.ones((1, 1, k), np.float32), -np.ones((1, 1, k), np.float32)]))
    scale = np.float32(1) / np.float32(127)
    weight_scale = int8_weights.quantize(weights)[1][0]
    wanted = np.float32(k * 127 * 127) * scale * weight_scale
    assert np.array_equal(y[:, 0], [[wanted, -wanted, wanted], [-wanted, wanted, -wanted]])


@every_isa
def test_projections_have_the_sums_of_integers(rng, isa):
    """o is 1 and the output activation linear, so that the vector that is projected is the cell state."""
    activations = [Activation.of(name) for name in ("sigmoid", "sigmoid", "tanh", "affine", "linear")]
    activations[3] = Activation("affine", 0.0, 1.0)
    spec = random_spec(rng, "lstm", 7, 37, proj_size=19, activations=tuple(activations))
    batch = random_batch(rng, spec, (1,) * 9)
    y, (_, c) = int8_layer(spec, isa)(batch.x, batch.state)
    projection = reference.Int8Matrix(spec.cells[0].weight_hr)
    for row in range(9):
        assert np.array_equal(y[row, 0], (projection @ c[0, row]).astype(np.float32))


@every_isa
def test_a_reset_state_has_the_sums_of_integers(rng, isa):
    """r is 1 and z is 0, so that the new state is the product of the candidate's weights with the old one."""
    gates = (Activation("affine", 0.0, 1.0), Activation("affine", 0.0, 0.0), Activation.of("linear"))
    spec = random_spec(rng, "gru", 5, 21, bias=False, activations=gates, linear_before_reset=False)
    spec.cells[0].weight_ih[:] = 0
    batch = random_batch(rng, spec, (1,) * 9)
    y, _ = int8_layer(spec, isa)(batch.x, batch.state)
    candidate = reference.Int8Matrix(spec.cells[0].weight_hh)[42:]
    for row in range(9):
        assert np.array_equal(y[row, 0], (candidate @ batch.state[0, row]).astype(np.float32))


def assert_steps_are_the_references(layer, spec, rng, steps=4):
    """Every step of a stream, from the layer's own state before it, which may not differ in a last bit."""
    cells = reference.prepared(replace(spec, weight_dtype="int8"))
    batch = random_batch(rng, spec, (steps,) * 5)
    stream = layer.stream(5)
    stream.state = batch.state
    for t in range(steps):
        before = [part.copy() for part in arrays_of(stream.state)]
        y = stream.step(batch.x[:, t])
        after = arrays_of(stream.state)
        for index, cell in enumerate(cells):
            # a vector that is rounded within the step, whose last bit may decide on an integer
            inside = cell.weight_hr is not None or not cell.linear_before_reset
            tolerance = 0.02 if inside else 3e-6
            for row in range(5):
                x = after[0][index - 1, row] if index else batch.x[row, t]
                state = before[0][index, row], before[-1][index, row]
                wanted = reference.step(spec.kind, cell, *(np.asarray(part, np.float64) for part in (x, *state)))
                for found, part in zip(after, wanted, strict=False):
                    np.testing.assert_allclose(found[index, row], part, rtol=tolerance, atol=tolerance)
        assert_same_bits(y, after[0][-1])


@every_isa
@every_model
def test_steps_are_those_of_the_reference(rng, isa, name):
    kind, options = MODELS[name]
    for input_size, hidden_size in ((5, 19), (33, 16), (1, 1)):
        options = options | ({"proj_size": hidden_size // 2 + 1} if "proj_size" in options else {})
        spec = random_spec(rng, kind, input_size, hidden_size, 2, **options)
        assert_steps_are_the_references(int8_layer(spec, isa), spec, rng)


@every_isa
@pytest.mark.parametrize("kind", LAYERS)
def test_steps_with_options_of_their_own_for_each_cell(rng, isa, kind):
    for proj_size in (0, 4) if kind == "lstm" else (0, 0):
        spec = random_options(rng, random_spec(rng, kind, 3, 17, 2, proj_size=proj_size))
        assert_steps_are_the_references(int8_layer(spec, isa), spec, rng)


def test_a_run_of_the_reference(rng):
    """One step of each row and direction: longer ones may differ by an integer of a state."""
    spec = replace(random_spec(rng, "lstm", 4, 9, 1, True), weight_dtype="int8")
    batch = random_batch(rng, spec, (1, 0, 1, 1))
    y, (h, c) = fastrnn.LSTM(spec)(batch.x, batch.state, lengths=batch.lengths)
    wanted = reference.run(spec, batch.x, batch.state, batch.lengths)
    for found, part in zip((y, h, c), wanted, strict=True):
        np.testing.assert_allclose(found, part, rtol=3e-6, atol=3e-6)


@pytest.mark.parametrize("weight_dtype, largest", [("float16", 3e-6), ("int8", 0.2)])
def test_runs_stay_near_the_reference(rng, weight_dtype, largest):
    for kind in LAYERS:
        spec = replace(random_spec(rng, kind, 8, 32), weight_dtype=weight_dtype)
        batch = random_batch(rng, spec)
        y, _ = LAYERS[kind](spec)(batch.x, batch.state, lengths=batch.lengths)
        wanted, *_ = reference.run(spec, batch.x, batch.state, batch.lengths)
        assert np.abs(y - wanted).max() < largest
        plain, *_ = reference.run(replace(spec, weight_dtype=None), batch.x, batch.state, batch.lengths)
        assert 0 < np.abs(plain - wanted).max() < largest if weight_dtype == "int8" else np.any(plain != wanted)


@every_isa
@pytest.mark.parametrize("kind", LAYERS)
def test_large_layers_of_many_rows(rng, isa, kind):
    """Large enough that rows and units are divided in every way, and threads share a step."""
    layer = int8_layer(random_spec(rng, kind, 261, 250), isa)
    x = rng.standard_normal((37, 3, 261)).astype(np.float32)
    y, last = layer(x)
    for rows in (slice(0, 1), slice(3, 5), slice(7, 20), slice(36, 37)):
        part, part_last = layer(x[rows])
        assert_same_bits((part, part_last), (y[rows], rows_of_state(last, rows)))
    before = fastrnn.get_num_threads()
    try:
        _core.set_num_threads(2, 0)
        for rows in (slice(0, 1), slice(0, 37)):
            assert_same_bits(layer(x[rows])[0], y[rows])
    finally:
        fastrnn.set_num_threads(before)


# Paths


@every_isa
@every_model
@pytest.mark.parametrize("form", ["forward", "both", "reverse"])
def test_every_path_has_the_same_bits(rng, name, form, isa):
    kind, options = MODELS[name]
    spec = replace(random_spec(rng, kind, 5, 19, 2, form == "both", **options), reverse=form == "reverse")
    layer = int8_layer(spec, isa)
    assert layer.isa == isa and layer.weight_dtype == "int8"
    batch = random_batch(rng, spec)
    y, last = layer(batch.x, batch.state, lengths=batch.lengths)
    rows = [row[:n] for row, n in zip(batch.x, batch.lengths, strict=True)]
    found, found_last = layer(rows, batch.state)
    assert_same_bits((found, found_last), ([row[:n] for row, n in zip(y, batch.lengths, strict=True)], last))
    packed, packed_last = layer(fastrnn.pack(batch.x, batch.lengths), batch.state)
    assert_same_bits((fastrnn.unpack(packed)[0], packed_last), (y, last))
    for row, length in enumerate(batch.lengths):
        alone, alone_last = layer(batch.x[row : row + 1, :length], rows_of_state(batch.state, [row]))
        assert_same_bits((alone[0], alone_last), (y[row, :length], rows_of_state(last, [row])))
    mask = rng.random(batch.x.shape[:2]) < 0.5
    x = np.nan_to_num(batch.x)
    masked, masked_last = layer(x, batch.state, mask=mask)
    kept, kept_last = layer([row[m] for row, m in zip(x, mask, strict=True)], batch.state)
    assert_same_bits((masked[mask], masked_last), (np.concatenate(kept), kept_last))
    assert_same_bits(layer.unroll(4)(x[:, :4], batch.state), layer(x[:, :4], batch.state))
    before = fastrnn.get_num_threads()
    try:
        _core.set_num_threads(3, 0)
        assert_same_bits(layer(batch.x, batch.state, lengths=batch.lengths), (y, last))
    finally:
        fastrnn.set_num_threads(before)
    if form == "forward":
        stream, wanted = layer.stream(9), layer(x, batch.state)
        stream.state = batch.state
        pieces = [stream.run(x[:, :2]), stream.step(x[:, 2])[:, None], stream.run(x[:, 3:])]
        assert_same_bits((np.concatenate(pieces, 1), stream.state), wanted)
        stream.state = batch.state
        first = stream.step(x[[4, 1], 0], rows=[4, 1])
        assert_same_bits(first, layer(x[[4, 1], :1], rows_of_state(batch.state, [4, 1]))[0][:, 0])


@every_isa
@every_model
def test_nan_and_infinity_stay_in_their_rows(rng, name, isa):
    kind, options = MODELS[name]
    spec = random_spec(rng, kind, 9, 19, 2, **options)
    layer = int8_layer(spec, isa)
    x = rng.standard_normal((13, 4, 9)).astype(np.float32)
    wanted, _ = layer(x)
    x[2, 1, 4], x[7, 1, 0], x[8, 1, 8] = np.nan, np.inf, -np.inf
    y, last = layer(x)
    bad = [2, 7, 8]
    assert_same_bits(np.delete(y, bad, 0), np.delete(wanted, bad, 0))
    assert_same_bits(y[bad, :1], wanted[bad, :1])
    assert np.isnan(y[bad, 1:]).all()
    assert np.isnan(arrays_of(last)[0][:, bad]).all() and np.isfinite(np.delete(arrays_of(last)[0], bad, 1)).all()
    state = [np.zeros_like(part) for part in arrays_of(last)]
    state[0][0, 3, 0] = np.inf
    x = np.nan_to_num(x, posinf=0, neginf=0)
    clean, _ = layer(x)
    found, _ = layer(x, tuple(state) if len(state) > 1 else state[0])
    assert np.isnan(found[3]).all()
    assert_same_bits(np.delete(found, 3, 0), np.delete(clean, 3, 0))


@every_isa
def test_layers_of_zeros_and_of_subnormal_weights(rng, isa):
    for factor in (0, 1e-42):
        for kind in LAYERS:
            spec = random_spec(rng, kind, 3, 17)
            for part in ("weight_ih", "weight_hh"):
                getattr(spec.cells[0], part)[...] *= np.float32(factor)
            x = rng.standard_normal((3, 5, 3)).astype(np.float32)
            found, wanted = int8_layer(spec, isa)(x), LAYERS[kind](spec, isa=isa)(x)
            for a, b in zip(arrays_of(found), arrays_of(wanted), strict=True):
                np.testing.assert_allclose(a, b, rtol=3e-6, atol=3e-6)


def test_instruction_sets():
    """Int8 weights have kernels of more sets; other layers take the next slower one of such a name."""
    wide = _core.available_isas()
    assert set(wide) <= set(ISAS) and _core.available_isas("float16") == wide
    spec = random_spec(np.random.default_rng(0), "rnn", 2, 3)
    assert int8_layer(spec).isa == fastrnn.info()["int8_isa"]
    for isa in ISAS:
        assert (
            fastrnn.RNN(spec, isa=isa).isa
            == _core.isa_for(isa, "float32")
            == next(name for name in ISAS[ISAS.index(isa) :] if name in wide)
        )
        model = fastrnn.Sequential(int8_layer(spec), isa=isa)
        assert model.isa == _core.isa_for(isa, "float32")


@every_isa
def test_snapshots_move_between_instruction_sets(rng, isa):
    spec = random_spec(rng, "lstm", 3, 17, 2)
    streams = [int8_layer(spec, one).stream(2) for one in (isa, "scalar")]
    x = rng.standard_normal((2, 3)).astype(np.float32)
    streams[0].step(x)
    streams[1].restore(streams[0].snapshot())
    assert_same_bits(streams[1].state, streams[0].state)
