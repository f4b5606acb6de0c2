"""Masks on layers: a masked row gives the same results as the row without its masked steps."""

from dataclasses import replace

import numpy as np
import pytest
from bits import MODELS, assert_same_bits, poison, rows_of_state
from cases import LAYERS, assert_close, random_batch, random_spec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fastrnn
from fastrnn import reference

#: Rows of each pattern: all, right padding, left padding, both, holes, one step, none; not sorted by count.
PATTERNS = {
    "holes": "1011010",
    "none": "0000000",
    "all": "1111111",
    "left": "0001111",
    "both": "0011100",
    "one": "0000010",
    "right": "1110000",
    "holes to the end": "0101001",
    "none again": "0000000",
}
MASK = np.array([[mark == "1" for mark in pattern] for pattern in PATTERNS.values()])
T = MASK.shape[1]
PAST_END = ("zero", "carry")


@pytest.fixture(params=MODELS)
def model(request):
    return MODELS[request.param]


@pytest.fixture(params=[False, True], ids=["forward", "bidirectional"])
def spec(rng, model, request):
    """Two layers of 3 inputs and 9 units."""
    kind, options = model
    return random_spec(rng, kind, 3, 9, 2, request.param, **options)


@pytest.fixture
def layer(spec):
    return LAYERS[spec.kind](spec)


def masked_batch(rng, spec, mask=MASK):
    """x with NaN wherever the mask is False, and a non-zero initial state."""
    x = rng.standard_normal((*mask.shape, spec.input_size)).astype(np.float32)
    x[~mask] = np.nan
    return x, random_batch(rng, spec, (0,) * len(mask)).state


def parts(y, last):
    return (y, *last) if isinstance(last, tuple) else (y, last, None)


@pytest.mark.parametrize("past_end", PAST_END)
def test_rule_12_any_pattern(rng, layer, spec, past_end):
    """Leading, holes, one step, all masked: the state and the outputs of the reference."""
    x, state = masked_batch(rng, spec)
    for initial in (None, state):
        found = parts(*layer(x, initial, mask=MASK, past_end=past_end))
        assert_close(found, reference.run(spec, x, initial, None, past_end, MASK), 3e-6)


@pytest.mark.parametrize("backend", ["fused", "blas"])
def test_rule_12_same_bits_as_the_row_without_its_masked_steps(rng, spec, backend):
    layer = LAYERS[spec.kind](spec, backend=backend)
    x, state = masked_batch(rng, spec)
    y, last = layer(x, state, mask=MASK)
    for row, counted in enumerate(MASK):
        alone, alone_last = layer(x[row : row + 1, counted], rows_of_state(state, [row]))
        assert_same_bits(y[row, counted], alone[0])
        assert_same_bits(rows_of_state(last, [row]), alone_last)
        assert not y[row, ~counted].any()


def test_rule_12_an_all_masked_row_keeps_its_state(rng, layer, spec):
    """Its outputs are zeros even with "carry", because no output comes before them."""
    x, state = masked_batch(rng, spec)
    empty = np.flatnonzero(~MASK.any(axis=1))
    for past_end in PAST_END:
        y, last = layer(x, state, mask=MASK, past_end=past_end)
        assert not y[empty].any()
        assert_same_bits(rows_of_state(last, empty), rows_of_state(state, empty))
    y, last = layer(x, state, mask=np.zeros_like(MASK))
    assert not y.any()
    assert_same_bits(last, state)


def test_rule_12_mask_with_lengths_means_both(rng, layer, spec):
    x, state = masked_batch(rng, spec)
    lengths = np.array([5, 3, 7, 0, 4, 6, 2, 3, 7])
    both = MASK & (np.arange(T) < lengths[:, None])
    for past_end in PAST_END:
        found = layer(x, state, mask=MASK, lengths=lengths, past_end=past_end)
        assert_same_bits(found, layer(x, state, mask=both, past_end=past_end))


def test_right_padding_equals_lengths(rng, layer, spec):
    lengths = np.array([3, 0, 7, 1, 3, 7])
    mask = np.arange(T) < lengths[:, None]
    x, state = masked_batch(rng, spec, mask)
    assert_same_bits(layer(x, state, mask=mask), layer(x, state, lengths=lengths))
    full, state = masked_batch(rng, spec, np.ones_like(mask))
    assert_same_bits(layer(full, state, mask=np.ones_like(mask)), layer(full, state))


@pytest.mark.parametrize("bidirectional", [False, True])
def test_rule_13_carried_outputs_follow_the_direction(rng, bidirectional):
    """Forward repeats the output before a masked step, reverse the one after it; zeros where there is none."""
    spec = random_spec(rng, "gru", 3, 4, 1, bidirectional)
    x, state = masked_batch(rng, spec)
    y, _ = fastrnn.GRU(spec)(x, state, mask=MASK)
    carried, _ = fastrnn.GRU(spec)(x, state, mask=MASK, past_end="carry")
    for row, counted in enumerate(MASK):
        for t in range(T):
            before = [s for s in range(t + 1) if counted[s]]
            after = [s for s in range(t, T) if counted[s]]
            assert_same_bits(carried[row, t, :4], y[row, before[-1], :4] if before else np.zeros(4, "f4"))
            if bidirectional:
                assert_same_bits(carried[row, t, 4:], y[row, after[0], 4:] if after else np.zeros(4, "f4"))


@pytest.mark.parametrize("garbage", [np.nan, np.inf, -1e38])
@pytest.mark.parametrize("past_end", PAST_END)
def test_rule_07_masked_steps_are_never_read(rng, layer, spec, garbage, past_end):
    x, state = masked_batch(rng, spec)
    wanted = layer(np.nan_to_num(x), state, mask=MASK, past_end=past_end)
    x[~MASK] = garbage
    assert_same_bits(layer(x, state, mask=MASK, past_end=past_end), wanted)


def test_every_layer_sees_the_mask(rng):
    """Two stacked layers equal one after the other with the same mask and carried outputs between them."""
    spec = random_spec(rng, "lstm", 3, 8, 2)
    lower = replace(spec, cells=spec.cells[:1], num_layers=1)
    upper = replace(spec, cells=spec.cells[1:], num_layers=1, input_size=8)
    x, _ = masked_batch(rng, spec)
    between, _ = fastrnn.LSTM(lower)(x, mask=MASK, past_end="carry")
    wanted, _ = fastrnn.LSTM(upper)(between, mask=MASK, past_end="carry")
    assert_same_bits(fastrnn.LSTM(spec)(x, mask=MASK, past_end="carry")[0], wanted)


@pytest.mark.parametrize("past_end", PAST_END)
def test_layouts(rng, spec, past_end):
    """Time-major and unbatched: the mask has x's shape without the last axis."""
    layer = LAYERS[spec.kind](spec)
    time_major = LAYERS[spec.kind](replace(spec, batch_first=False))
    x, state = masked_batch(rng, spec)
    y, last = layer(x, state, mask=MASK, past_end=past_end)
    found, found_last = time_major(x.swapaxes(0, 1), state, mask=MASK.T, past_end=past_end)
    assert_same_bits(found.swapaxes(0, 1), y)
    assert_same_bits(found_last, last)
    for row in range(len(MASK)):
        for one in (layer, time_major):
            found, found_last = one(x[row], rows_of_state(state, row), mask=MASK[row], past_end=past_end)
            assert_same_bits(found, y[row])
            assert_same_bits(found_last, rows_of_state(last, row))


@pytest.mark.parametrize("past_end", PAST_END)
def test_out(rng, layer, spec, past_end):
    x, state = masked_batch(rng, spec)
    wanted = layer(x, state, mask=MASK, past_end=past_end)
    out = poison((*MASK.shape, layer.output_size))
    y, last = layer(x, state, mask=MASK, past_end=past_end, out=out)
    assert y is out
    assert_same_bits((y, last), wanted)


def test_a_mask_in_the_memory_of_out_is_read_first(rng):
    spec = random_spec(rng, "gru", 3, 8)
    x, state = masked_batch(rng, spec)
    wanted = fastrnn.GRU(spec)(x, state, mask=MASK)
    out = np.empty((*MASK.shape, 8), np.float32)
    mask = out.view(np.bool_).reshape(-1)[: MASK.size].reshape(MASK.shape)
    mask[:] = MASK
    assert_same_bits(fastrnn.GRU(spec)(x, state, mask=mask, out=out), wanted)


def test_no_rows_and_no_steps(layer, spec):
    for shape in ((0, 4), (4, 0), (0, 0)):
        y, last = layer(np.zeros((*shape, 3), np.float32), mask=np.zeros(shape, bool))
        assert y.shape == (*shape, layer.output_size)
        assert parts(y, last)[1].shape == (len(spec.cells), shape[0], spec.h_size)


@pytest.mark.parametrize(
    ("mask", "error", "message"),
    [
        (MASK.astype(int), TypeError, "mask is of type int64, wanted booleans"),
        (MASK.astype(float), TypeError, "mask is of type float64, wanted booleans"),
        (MASK[:, :-1], ValueError, r"mask has shape \(9, 6\), wanted \(9, 7\)"),
        (MASK.T, ValueError, r"mask has shape \(7, 9\), wanted \(9, 7\)"),
        (MASK[..., None], ValueError, r"mask has shape \(9, 7, 1\)"),
        (MASK[0], ValueError, r"mask has shape \(7,\)"),
        (True, ValueError, r"mask has shape \(\)"),
        ([[True], [True, False]], TypeError, "mask is list, wanted an array"),
        (object(), TypeError, "mask is of type object"),
    ],
)
def test_misfits_are_refused(rng, mask, error, message):
    spec = random_spec(rng, "gru", 3, 4)
    x, _ = masked_batch(rng, spec)
    with pytest.raises(error, match=message):
        fastrnn.GRU(spec)(x, mask=mask)


def test_a_mask_is_for_arrays(rng):
    layer = fastrnn.GRU(random_spec(rng, "gru", 3, 4))
    x = np.zeros((9, 7, 3), np.float32)
    for ragged in (list(x), fastrnn.pack(x, [7] * 9)):
        with pytest.raises(TypeError, match="mask is given, but x is a"):
            layer(ragged, mask=MASK)


@settings(max_examples=200, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_any_mask_equals_compaction_by_hand(data):
    """Equal bit for bit for any layer, sizes, pattern, state and contents of masked steps."""
    kind, options = MODELS[data.draw(st.sampled_from(sorted(MODELS)))]
    B, steps = data.draw(st.integers(0, 9)), data.draw(st.integers(0, 12))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    sizes = (data.draw(st.integers(0, 17)), data.draw(st.integers(1, 17)), data.draw(st.integers(1, 2)))
    spec = random_spec(rng, kind, *sizes, data.draw(st.booleans()), **options)
    layer = LAYERS[kind](spec)
    mask = rng.random((B, steps)) < data.draw(st.sampled_from([0.0, 0.2, 0.5, 0.9, 1.0]))
    x, state = masked_batch(rng, spec, mask)
    past_end = data.draw(st.sampled_from(PAST_END))
    found = layer(x, state, mask=mask, past_end=past_end)
    assert_close(parts(*found), reference.run(spec, x, state, None, past_end, mask), 5e-6)
    compact = [row[counted] for row, counted in zip(x, mask, strict=True)]
    y, last = layer(compact, state)
    for row, counted in enumerate(mask):
        assert_same_bits(found[0][row, counted], y[row])
    assert_same_bits(found[1], last)
