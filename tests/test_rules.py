"""The rules for edge cases in docs/rules.md.

Masks (12, 32) and what concerns a single importer (the gate orders of 18, compatibility flags) are tested with those.
All outputs are always computed, so 28 has no test.
"""

import gc
import itertools
import resource
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest
from bits import assert_same_bits, poison, rows_of_state
from cases import LAYERS, LENGTHS, assert_close, assert_matches_reference, random_batch, random_spec

import fastrnn
from fastrnn import _core, reference
from fastrnn.spec import Activation, CellSpec, LayerSpec

REFUSALS = (TypeError, ValueError, MemoryError)


@pytest.fixture(params=LAYERS)
def kind(request):
    return request.param


@pytest.fixture(params=[False, True], ids=["forward", "bidirectional"])
def bidirectional(request):
    return request.param


@pytest.fixture
def spec(rng, kind, bidirectional):
    """Two layers of 3 inputs and 5 units."""
    return random_spec(rng, kind, 3, 5, 2, bidirectional)


@pytest.fixture
def layer(spec):
    return LAYERS[spec.kind](spec)


@pytest.fixture
def batch(rng, spec):
    return random_batch(rng, spec)


def split_state(spec, state):
    """(h, c), with c None unless the layer is an LSTM."""
    return state if spec.kind == "lstm" else (state, None)


def test_rule_01_zero_length_row(layer, batch):
    """A row of length zero yields zeros and keeps its initial state."""
    y, last = layer(batch.x, batch.state, lengths=LENGTHS)
    empty = np.flatnonzero(np.array(LENGTHS) == 0)
    assert len(empty) and not y[empty].any()
    assert_same_bits(rows_of_state(last, empty), rows_of_state(batch.state, empty))


@pytest.mark.parametrize("past_end", ["zero", "carry"])
def test_rule_02_all_lengths_zero(layer, spec, batch, past_end):
    """All lengths zero: the final state is the initial one."""
    y, last = layer(batch.x, batch.state, lengths=[0] * len(LENGTHS), past_end=past_end)
    wanted = reference.run(spec, batch.x, batch.state, [0] * len(LENGTHS), past_end)[0]
    assert_same_bits(y, wanted.astype(np.float32))
    assert_same_bits(last, batch.state)


def test_rule_03_no_steps(layer, spec, batch):
    """T = 0, with lengths or without: y is empty, the final state is the initial one."""
    B = len(LENGTHS)
    for lengths in (None, [0] * B):
        y, last = layer(batch.x[:, :0], batch.state, lengths=lengths)
        assert y.shape == (B, 0, layer.output_size)
        assert_same_bits(last, batch.state)
    y, last = layer(batch.x[0, :0])
    assert y.shape == (0, layer.output_size)
    assert not any(part.any() for part in split_state(spec, last) if part is not None)


def test_rule_04_no_rows(layer, spec):
    """B = 0: empty results of the right shape, for every form of x."""
    x = np.zeros((0, 4, 3), np.float32)
    for lengths in (None, [], np.zeros(0, np.int32)):
        y, last = layer(x, lengths=lengths)
        h, c = split_state(spec, last)
        assert y.shape == (0, 4, layer.output_size)
        assert h.shape == (len(spec.cells), 0, 5) and (c is None or c.shape == h.shape)
    y, last = layer([])
    assert y == [] and split_state(spec, last)[0].shape == (len(spec.cells), 0, 5)
    y, last = layer(fastrnn.pack(x, []))
    assert y.data.shape == (0, layer.output_size) and len(y.batch_sizes) == 0


def test_rule_05_nothing_at_all(rng, layer, spec, kind, bidirectional):
    """T = B = 0 and input_size = 0 (a bias alone drives the cell) are legal, hidden_size = 0 is not."""
    for shape in ((0, 0, 3), (0, 3)):
        y, _ = layer(np.zeros(shape, np.float32))
        assert y.shape == (*shape[:-1], layer.output_size)
    driven = random_spec(rng, kind, 0, 5, 2, bidirectional)
    assert_matches_reference(driven, random_batch(rng, driven))
    empty = CellSpec(np.zeros((0, 3), np.float32), np.zeros((0, 0), np.float32))
    with pytest.raises(ValueError, match="hidden_size is 0"):
        LAYERS[kind](LayerSpec(kind, [empty], 3, 0))


@pytest.mark.parametrize("bad", [-1, 8, 2**31, 2**32, 2**40, 2**63 - 1, -(2**63), 2**64 - 1, 2**70])
def test_rule_06_length_out_of_range(layer, batch, bad):
    """A length below 0 or above T is refused with its row and value, never clamped or wrapped."""
    forms = [[3, bad, 1, 2, 3, 4, 5, 6, 7]]
    if -(2**63) <= bad < 2**63:
        forms.append(np.array(forms[0], np.int64))
    elif bad < 2**64:
        forms.append(np.array(forms[0], np.uint64))
    for lengths in forms:
        with pytest.raises(ValueError, match=rf"lengths\[1\] is {bad}\b.*7"):
            layer(batch.x, lengths=lengths)
        with pytest.raises(ValueError, match=rf"lengths\[1\] is {bad}\b.*7"):
            fastrnn.pack(batch.x, lengths)


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        ([1.0] * 9, TypeError),
        ([float("nan")] * 9, TypeError),
        ([True] * 9, TypeError),
        (["1"] * 9, TypeError),
        ([None] * 9, TypeError),
        (3, ValueError),
        ([1] * 8, ValueError),
        ([1] * 10, ValueError),
        ([[1] * 9], ValueError),
        ([], ValueError),
    ],
    ids=repr,
)
def test_rule_06_lengths_of_another_kind(layer, batch, bad, error):
    """Lengths that are not integers, or not one for each row, are refused by name."""
    with pytest.raises(error, match="lengths"):
        layer(batch.x, lengths=bad)


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", ">i4", ">u8"])
def test_rule_06_any_integer_type(layer, batch, dtype):
    """Lengths may have any integer type."""
    assert_same_bits(layer(batch.x, lengths=np.array(LENGTHS, dtype)), layer(batch.x, lengths=LENGTHS))


@pytest.mark.parametrize("garbage", [np.nan, np.inf, -np.inf, 1e38, -0.0])
def test_rule_07_padding_is_never_read(layer, batch, garbage):
    """The contents of padding change nothing."""
    wanted = layer(np.nan_to_num(batch.x), batch.state, lengths=LENGTHS)
    x = np.where(np.isnan(batch.x), np.float32(garbage), batch.x)
    assert_same_bits(layer(x, batch.state, lengths=LENGTHS), wanted)


@pytest.mark.parametrize("garbage", [np.nan, np.inf])
def test_rule_08_garbage_stays_in_its_row(rng, kind, bidirectional, garbage):
    """NaN or Inf in a valid step affects its own row only, from that step on in the direction of travel."""
    spec = random_spec(rng, kind, 3, 5, 1, bidirectional)
    layer, row, step = LAYERS[kind](spec), 2, 3
    batch = random_batch(rng, spec, (7,) * 5)
    wanted, _ = layer(batch.x, batch.state)
    x = batch.x.copy()
    x[row, step, 1] = garbage
    y, _ = layer(x, batch.state)
    others = np.arange(5) != row
    assert_same_bits(y[others], wanted[others])
    assert_same_bits(y[row, :step, :5], wanted[row, :step, :5])
    assert_same_bits(y[row, step + 1 :, 5:], wanted[row, step + 1 :, 5:])
    if np.isnan(garbage):
        assert np.isnan(y[row, step:, :5]).all() and np.isnan(y[row, : step + 1, 5:]).all()


def test_rule_09_reverse_starts_at_each_rows_own_end(rng, kind):
    """The reverse direction runs from its row's last step to step 0."""
    spec = random_spec(rng, kind, 3, 5, 1, True)
    batch = random_batch(rng, spec)
    y, last = LAYERS[kind](spec)(batch.x, batch.state, lengths=LENGTHS)
    h, _ = split_state(spec, last)
    for row, length in enumerate(LENGTHS):
        if length:
            assert_same_bits(h[0, row], y[row, length - 1, :5])
            assert_same_bits(h[1, row], y[row, 0, 5:])
    assert_matches_reference(spec, batch)


@pytest.mark.parametrize("lengths", [(5, 2, 7), (2, 5, 7), (7, 0, 7, 1), (1, 2, 3, 4, 5, 6, 7)], ids=str)
def test_rule_10_no_sort_shows(rng, kind, lengths):
    """The reverse direction equals a forward layer on each reversed row, wherever the short rows are."""
    spec = random_spec(rng, kind, 3, 5, 1, True)
    turned = replace(spec, cells=spec.cells[1:], bidirectional=False)
    batch = random_batch(rng, spec, lengths)
    y, _ = LAYERS[kind](spec)(batch.x, lengths=lengths)
    for row, length in enumerate(lengths):
        alone, _ = LAYERS[kind](turned)(batch.x[row, :length][::-1])
        assert_same_bits(y[row, :length, 5:], np.ascontiguousarray(alone[::-1]))


def test_rule_11_final_state_is_at_each_rows_end(layer, batch):
    """The final h and c are those after step length - 1, not after step T - 1."""
    _, last = layer(batch.x, batch.state, lengths=LENGTHS)
    for row, length in enumerate(LENGTHS):
        _, alone = layer(batch.x[row : row + 1, :length], rows_of_state(batch.state, [row]))
        assert_same_bits(rows_of_state(last, [row]), alone)


def test_rule_13_zero_or_carry_past_the_end(layer, spec, batch):
    """Past a row's end y is zero, or each direction's final h if asked for."""
    y, last = layer(batch.x, batch.state, lengths=LENGTHS)
    carried, carried_last = layer(batch.x, batch.state, lengths=LENGTHS, past_end="carry")
    assert_same_bits(carried_last, last)
    h, _ = split_state(spec, last)
    ends = np.concatenate(h[-spec.num_directions :], axis=-1)
    for row, length in enumerate(LENGTHS):
        assert_same_bits(carried[row, :length], y[row, :length])
        assert not y[row, length:].any()
        for step in range(length, 7):
            assert_same_bits(carried[row, step], ends[row])
    with pytest.raises(ValueError, match="past_end is 'hold'"):
        layer(batch.x, past_end="hold")


def test_rule_14_initial_state(layer, spec, batch):
    """None is zeros; a tuple, list or State is accepted; nothing is broadcast; errors name what does not fit."""
    x, state = np.nan_to_num(batch.x), batch.state
    zeros = tuple(0 * part for part in state) if spec.kind == "lstm" else 0 * state
    assert_same_bits(layer(x), layer(x, zeros))
    h, c = split_state(spec, state)
    forms = [state]
    if spec.kind == "lstm":
        forms = [(h, c), [h, c], fastrnn.State(h, c)]
        for bad in (h, (h,), (h, c, c), {"h": h, "c": c}):
            with pytest.raises(TypeError, match=r"state .*wanted the pair"):
                layer(x, bad)
    for form in forms:
        assert_same_bits(layer(x, form), layer(x, state))
    for index in range(1 + (c is not None)):
        for bad, error in (
            (h[:, :1], ValueError),
            (h[0], ValueError),
            (h[..., :4], ValueError),
            (h[:1], ValueError),
            (h.astype(np.float64), TypeError),
            (None, TypeError),
        ):
            parts = [h, c]
            parts[index] = bad
            if spec.kind == "lstm" or bad is not None:
                with pytest.raises(error, match="state"):
                    layer(x, tuple(parts) if spec.kind == "lstm" else bad)


@pytest.mark.parametrize("proj_size", [1, 4, 7])
def test_rule_15_projection(rng, bidirectional, proj_size):
    """With a projection h is P wide, c is H wide, and stacked layers take P."""
    spec = random_spec(rng, "lstm", 3, 5, 2, bidirectional, proj_size)
    batch = random_batch(rng, spec)
    y, (h, c) = fastrnn.LSTM(spec)(batch.x, batch.state, lengths=LENGTHS)
    cells = len(spec.cells)
    assert y.shape == (9, 7, spec.num_directions * proj_size)
    assert h.shape == (cells, 9, proj_size) and c.shape == (cells, 9, 5)
    assert_matches_reference(spec, batch)


def test_rule_16_batch_first_moves_x_and_y_only(layer, spec, batch):
    """batch_first=False takes and returns (T, B, .), and does not change states."""
    time_major = LAYERS[spec.kind](replace(spec, batch_first=False))
    y, last = layer(batch.x, batch.state, lengths=LENGTHS)
    found, found_last = time_major(batch.x.swapaxes(0, 1), batch.state, lengths=LENGTHS)
    assert_same_bits(found.swapaxes(0, 1), y)
    assert_same_bits(found_last, last)


@pytest.mark.parametrize("batch_first", [True, False])
def test_rule_17_one_unbatched_sequence(spec, batch, batch_first):
    """A 2-D x is one sequence; y and the states are returned without B, and states may be given without it."""
    layer = LAYERS[spec.kind](replace(spec, batch_first=batch_first))
    x, row = batch.x[2], slice(2, 3)
    wanted, wanted_last = layer([x], rows_of_state(batch.state, row))
    y, last = layer(x, rows_of_state(batch.state, 2))
    assert_same_bits(y, wanted[0])
    assert_same_bits(last, rows_of_state(wanted_last, 0))


def single_unit(kind, bias_ih, bias_hh=None, weight_hh=None, **options):
    """A cell of one unit without inputs, driven by its biases."""
    gates = len(bias_ih)
    weight_hh = np.zeros((gates, 1)) if weight_hh is None else np.array(weight_hh, float).reshape(gates, 1)
    bias_hh = None if bias_hh is None else np.array(bias_hh, float)
    cell = CellSpec(np.zeros((gates, 0)), weight_hh, np.array(bias_ih, float), bias_hh, **options)
    return LAYERS[kind](LayerSpec(kind, [cell], 0, 1), dtype=np.float64)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_rule_18_order_of_the_gates():
    """The order of gates is i f g o and r z n, that of peepholes i f o."""
    step, h0, c0 = np.zeros((1, 1, 0)), np.full((1, 1, 1), 0.3), np.full((1, 1, 1), -0.7)
    i, f, g, o = 0.1, -0.4, 0.9, 1.3
    _, (h, c) = single_unit("lstm", (i, f, g, o))(step, (h0, c0))
    wanted = sigmoid(f) * -0.7 + sigmoid(i) * np.tanh(g)
    np.testing.assert_allclose((c.item(), h.item()), (wanted, sigmoid(o) * np.tanh(wanted)), rtol=1e-14)

    peephole = np.array([[0.5], [-1.5], [2.5]])
    _, (h, c) = single_unit("lstm", (i, f, g, o), peephole=peephole)(step, (h0, c0))
    wanted = sigmoid(f - 1.5 * -0.7) * -0.7 + sigmoid(i + 0.5 * -0.7) * np.tanh(g)
    np.testing.assert_allclose((c.item(), h.item()), (wanted, sigmoid(o + 2.5 * wanted) * np.tanh(wanted)), rtol=1e-14)

    r, z, n, b = 0.2, -0.6, 0.8, 0.5
    _, h = single_unit("gru", (r, z, n), (0, 0, b))(step, h0)
    candidate = np.tanh(n + sigmoid(r) * b)
    np.testing.assert_allclose(h.item(), (1 - sigmoid(z)) * candidate + sigmoid(z) * 0.3, rtol=1e-14)


def test_rule_19_conventions():
    """z keeps the old state; the GRU resets after the matmul or before it; a missing bias is zero."""
    step, h0 = np.zeros((1, 1, 0)), np.full((1, 1, 1), 0.3)
    _, h = single_unit("gru", (0, 50, 9))(step, h0)
    assert h.item() == pytest.approx(0.3, abs=1e-15)
    for after, inner in ((True, sigmoid(0.2) * (2 * 0.3 + 0.5)), (False, 2 * (sigmoid(0.2) * 0.3) + 0.5)):
        layer = single_unit("gru", (0.2, -50, 0.8), (0, 0, 0.5), (0, 0, 2), linear_before_reset=after)
        assert layer(step, h0)[1].item() == pytest.approx(np.tanh(0.8 + inner), rel=1e-14)
    _, (split, _) = single_unit("lstm", (1, 2, 3, 4), (5, 6, 7, 8))(step)
    _, (joined, _) = single_unit("lstm", (6, 8, 10, 12))(step)
    assert split.item() == pytest.approx(joined.item(), rel=1e-15)


def test_rule_20_activations_by_name(rng, kind):
    """Names are accepted in any case, parameters have defaults, unknown names and wrong counts are refused."""
    assert Activation.of("HardSigmoid".upper().replace("SIG", "_SIG")) == Activation("hard_sigmoid", 0.2, 0.5)
    assert Activation.of("leaky_relu", alpha=0.3).alpha == 0.3
    with pytest.raises(ValueError, match="activation is 'swish'"):
        Activation.of("swish")
    spec = random_spec(rng, kind, 3, 5)
    count = {"lstm": 5, "gru": 3, "rnn": 1}[kind]
    for activations in ((Activation("swish", 0, 0),) * count, (Activation.of("tanh"),) * (count + 1)):
        with pytest.raises(ValueError, match="activations_l0"):
            LAYERS[kind](replace(spec, cells=[replace(spec.cells[0], activations=activations)]))


def test_rule_21_clip(rng, kind, bidirectional):
    """None means no clip; zero, negative numbers and NaN are refused; gates are clipped before their activation."""
    spec = random_spec(rng, kind, 3, 5, 1, bidirectional, proj_size=2 if kind == "lstm" else 0, scale=4)
    clips = ("gate_clip", "cell_clip", "proj_clip") if kind == "lstm" else ("gate_clip",)
    batch = random_batch(rng, spec)
    plain, _, _ = reference.run(spec, batch.x, batch.state, LENGTHS)
    for clip in clips:
        for bad in (0, 0.0, -1.0, np.nan):
            with pytest.raises(ValueError, match=f"{clip}_l0 is {bad}"):
                LAYERS[kind](replace(spec, cells=[replace(cell, **{clip: bad}) for cell in spec.cells]))
        clipped = replace(spec, cells=[replace(cell, **{clip: 0.1}) for cell in spec.cells])
        assert_matches_reference(clipped, batch)
        assert not np.allclose(reference.run(clipped, batch.x, batch.state, LENGTHS)[0], plain)


def test_rule_22_activations_saturate(isa):
    """sigmoid and tanh reach 0 and +-1 exactly; NaN in, NaN out; subnormal numbers are accepted."""
    large = np.array([100, 1e4, 1e20, 3e38, np.inf], np.float32)
    tiny = np.array([1e-40, 1e-45, -1e-40, 0.0, -0.0], np.float32)
    for sign in (1, -1):
        assert (_core.activate(isa, "tanh", sign * large) == sign).all()
        assert (_core.activate(isa, "tanh", [sign * 88.0]) == sign).all()
        assert (_core.activate(isa, "sigmoid", sign * large[1:]) == (sign > 0)).all()
    assert _core.activate(isa, "sigmoid", [88.0]) == 1
    assert 0 <= _core.activate(isa, "sigmoid", [-88.0]) < 1e-37
    assert 0 <= _core.activate(isa, "sigmoid", [-100.0]) < 1e-37
    assert (np.abs(_core.activate(isa, "tanh", tiny)) <= 1e-38).all()
    assert (_core.activate(isa, "sigmoid", tiny) == 0.5).all()
    for name in _core.ACTIVATIONS:
        assert np.isnan(_core.activate(isa, name, [np.nan] * 33, 0.5, 0.25)).all(), name


def test_rule_22_layers_saturate(rng, isa, kind, bidirectional):
    """Huge inputs leave every output between -1 and 1."""
    layer = LAYERS[kind](random_spec(rng, kind, 3, 5, 2, bidirectional), isa=isa)
    x = np.array([1, -1, 1], np.float32) * np.array([[1e20], [1e30], [-1e20], [0], [1e-40]], np.float32)
    y, _ = layer(x)
    assert (np.abs(y) <= 1).all()


def unaligned(array):
    room = np.empty(array.nbytes + 1, np.uint8)
    view = room[1:].view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


def read_only(array):
    copy = array.copy()
    copy.flags.writeable = False
    return copy


def every_second(array):
    room = np.full((*array.shape[:-1], 2 * array.shape[-1]), np.nan, array.dtype)
    room[..., ::2] = array
    return room[..., ::2]


LAYOUTS = {
    "fortran": np.asfortranarray,
    "reversed": lambda array: array[::-1].copy()[::-1],
    "reversed-all": lambda array: np.flip(np.flip(array).copy()),
    "transposed": lambda array: array.swapaxes(0, 1).copy().swapaxes(0, 1),
    "every-second": every_second,
    "wider": lambda array: np.concatenate([array, array], -1)[..., : array.shape[-1]],
    "byte-swapped": lambda array: array.astype(array.dtype.newbyteorder()),
    "unaligned": unaligned,
    "read-only": read_only,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rule_23_any_layout(layer, spec, batch, layout):
    """For all strides, byte orders and alignments of x and the state, the bits are those of a contiguous copy."""
    arrange = LAYOUTS[layout]
    x, state = arrange(batch.x), batch.state
    state = tuple(map(arrange, state)) if spec.kind == "lstm" else arrange(state)
    wanted = layer(batch.x, batch.state, lengths=LENGTHS)
    assert_same_bits(layer(x, state, lengths=LENGTHS), wanted)
    rows = [arrange(row[:n]) for row, n in zip(batch.x, LENGTHS, strict=True)]
    assert_same_bits(layer(rows, state)[1], wanted[1])
    packed = fastrnn.pack(batch.x, LENGTHS)
    assert_same_bits(layer(replace(packed, data=arrange(packed.data)), state)[1], wanted[1])
    if not spec.bidirectional:
        streams = layer.stream(9), layer.stream(9)
        for stream, form in zip(streams, (batch.state, state), strict=True):
            stream.state = form
        steps = np.nan_to_num(batch.x)
        assert_same_bits(streams[0].run(steps), streams[1].run(arrange(steps)))
        assert_same_bits(streams[0].step(steps[:, 0]), streams[1].step(arrange(steps[:, 0])))


def test_rule_23_broadcast_input(layer, batch):
    """A row that is repeated by strides of zero."""
    row = batch.x[2, :1]
    x = np.broadcast_to(row, (9, 7, 3))
    assert_same_bits(layer(x, batch.state), layer(x.copy(), batch.state))


def test_rule_23_out(layer, batch):
    """out is written in place; one that overlaps x, or does not fit, is refused by name."""
    x = np.nan_to_num(batch.x)
    wanted, _ = layer(x)
    out = poison(wanted.shape)
    assert layer(x, out=out)[0] is out
    assert_same_bits(out, wanted)
    room = np.zeros(x.size + out.size, np.float32)
    view = room[: x.size].reshape(x.shape)
    view[...] = x
    for start in (0, x.size // 2, x.size - 1):
        with pytest.raises(ValueError, match="out overlaps x"):
            layer(view, out=room[start : start + out.size].reshape(out.shape))
    layer(view, out=room[x.size :].reshape(out.shape))
    for bad, error in (
        (out[:, ::-1], ValueError),
        (out[1:], ValueError),
        (read_only(out), ValueError),
        (unaligned(out), ValueError),
        (out.astype(np.float64), TypeError),
        (out.astype(">f4"), TypeError),
        (out.tolist(), TypeError),
    ):
        with pytest.raises(error, match="out"):
            layer(x, out=bad)


@pytest.mark.parametrize("dtype", ["f8", "g", "i4", "u4", "i8", "c8", "O", "U1", "M8[s]"])
def test_rule_24_no_silent_cast(layer, batch, dtype):
    """Types that float32 cannot hold are refused by name, in every form of x; see also tests/test_casting.py."""
    x = np.zeros((2, 7, 3), dtype)
    calls = [lambda: layer(x), lambda: layer([x[0], x[1]]), lambda: layer(fastrnn.pack(x, [3, 7]))]
    if not layer.bidirectional:
        stream = layer.stream(2)
        calls += [lambda: stream.run(x), lambda: stream.step(x[:, 0])]
    for call in calls:
        with pytest.raises(TypeError, match=r"x.* is .*wanted float32"):
            call()


def test_rule_24_float64_layer(layer, spec):
    """A float64 layer accepts float32, refuses types that float64 cannot hold, and computes in float64."""
    wide = LAYERS[spec.kind](spec, dtype=np.float64)
    narrow = np.random.default_rng(0).standard_normal((2, 7, 3)).astype(np.float32)
    assert_same_bits(wide(narrow), wide(narrow.astype(np.float64)))
    with pytest.raises(TypeError, match="x is int64, wanted float64"):
        wide(np.zeros((2, 7, 3), np.int64))
    x = np.random.default_rng(0).standard_normal((2, 7, 3))
    y, last = wide(x)
    assert_close((y, *split_state(spec, last)), reference.run(spec, x), 1e-13)


def test_rule_25_weights_are_copied(spec, batch):
    """Changes to the caller's arrays after construction change nothing; two layers may come from the same ones."""
    first, second = LAYERS[spec.kind](spec), LAYERS[spec.kind](spec)
    wanted = first(batch.x, lengths=LENGTHS)
    for cell in spec.cells:
        cell.weight_ih[:] = np.nan
        cell.weight_hh[:] = np.nan
        cell.bias_ih[:] = np.nan
    assert_same_bits(first(batch.x, lengths=LENGTHS), wanted)
    del first
    gc.collect()
    assert_same_bits(second(batch.x, lengths=LENGTHS), wanted)


def test_rule_25_layer_dropped_while_in_use(rng, kind):
    """Streams, plans and running calls keep alive what they need of a deleted layer."""
    spec = random_spec(rng, kind, 3, 5, 2)
    x = np.nan_to_num(random_batch(rng, spec, (400,) * 16).x)
    layer = LAYERS[kind](spec)
    wanted, _ = layer(x)
    stream, fixed, results = layer.stream(16), layer.unroll(400), []
    threads = [threading.Thread(target=lambda call: results.append(call(x)[0]), args=(layer,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    del layer  # a thread releases its arguments when its call ends
    gc.collect()
    assert_same_bits(stream.run(x), wanted)
    assert_same_bits(fixed(x)[0], wanted)
    for thread in threads:
        thread.join()
    assert len(results) == 4
    for result in results:
        assert_same_bits(result, wanted)


def test_rule_26_chunks_equal_the_whole(rng, kind):
    """A sequence in chunks with the state carried over has the bits of one call, however it is cut."""
    spec = random_spec(rng, kind, 3, 5, 2)
    layer, batch = LAYERS[kind](spec), random_batch(rng, spec, (20,) * 4)
    wanted = layer(batch.x, batch.state)
    for _ in range(10):
        cuts = [0, *np.sort(rng.integers(0, 21, rng.integers(0, 6))), 20]
        stream, state, pieces = layer.stream(4), batch.state, []
        stream.state = batch.state
        for start, stop in itertools.pairwise(cuts):
            y, state = layer(batch.x[:, start:stop], state)
            assert_same_bits(stream.run(batch.x[:, start:stop]), y)
            pieces.append(y)
        assert_same_bits((np.concatenate(pieces, 1), state), wanted)
        assert_same_bits(stream.state, wanted[1])


def test_rule_27_no_stale_data(rng, layer, spec):
    """Batches that grow and shrink from call to call leave no data of one call in another."""
    fresh = [LAYERS[spec.kind](spec) for _ in range(12)]
    for other in fresh:
        lengths = tuple(int(n) for n in rng.integers(0, 12, rng.integers(0, 20)))
        batch = random_batch(rng, spec, lengths)
        wanted = other(batch.x, batch.state, lengths=lengths)
        out = poison(wanted[0].shape)
        assert_same_bits(layer(batch.x, batch.state, lengths=lengths, out=out), wanted)


@pytest.mark.parametrize("shape", [(2**55, 1, 3), (1, 2**55, 3), (2**28, 2**28, 3), (2**31, 2**25, 3)], ids=str)
def test_rule_29_sizes_beyond_memory(layer, shape):
    """Sizes whose product exceeds the address space are refused before anything is computed or allocated."""
    x = np.broadcast_to(np.float32(0), shape)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(REFUSALS) as error:
        layer(x)
    assert str(error.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << (20 if sys.platform == "darwin" else 10)
    layer(np.zeros((2, 2, 3), np.float32))


def test_rule_29_rows_without_data(layer):
    """Huge counts are accepted if there is no data."""
    y, _ = layer(np.broadcast_to(np.float32(0), (0, 2**38, 3)))
    assert y.shape == (0, 2**38, layer.output_size)


@pytest.mark.parametrize("bad", [-1, 2**62, 2**63, 2**70, 1.5, "1", None, True])
def test_rule_29_counts_out_of_range(rng, kind, bad):
    """Counts that are not integers, or out of range, are refused with a message."""
    layer = LAYERS[kind](random_spec(rng, kind, 3, 5))
    for call, name in ((layer.stream, "batch_size"), (layer.unroll, "num_steps")):
        with pytest.raises(REFUSALS) as error:
            call(bad)
        assert str(error.value)
        if bad not in (2**62, 2**63, 2**70):
            assert name in str(error.value)


def test_rule_30_every_hidden_size(rng, isa, kind, bidirectional):
    """Every H from 1 to 65 equals the reference, so also sizes next to those of register blocks."""
    for size in range(1, 66):
        spec = random_spec(rng, kind, 3, size, 1, bidirectional)
        assert_matches_reference(spec, random_batch(rng, spec, (2, 0, 3)), isa=isa)


def test_rule_30_every_input_size(rng, isa, kind):
    """Every I from 1 to 65 equals the reference."""
    for size in range(1, 66):
        spec = random_spec(rng, kind, size, 9)
        assert_matches_reference(spec, random_batch(rng, spec, (2, 0, 3)), isa=isa)


def test_rule_30_every_batch_size(rng, isa, kind):
    """Every B from 1 to 65 equals the reference."""
    spec = random_spec(rng, kind, 3, 9)
    batch = random_batch(rng, spec, tuple(n % 4 for n in range(65)))
    y, h, c = reference.run(spec, batch.x, batch.state, batch.lengths)
    layer = LAYERS[kind](spec, isa=isa)
    for size in range(1, 66):
        state = rows_of_state(batch.state, slice(size))
        found, last = layer(batch.x[:size], state, lengths=batch.lengths[:size])
        wanted = y[:size], h[:, :size], None if c is None else c[:, :size]
        assert_close((found, *split_state(spec, last)), wanted, 3e-6)


@pytest.mark.parametrize("proj_size", range(1, 66, 4))
def test_rule_30_projection_sizes(rng, isa, proj_size):
    """Projections of every size with H = 17 equal the reference."""
    spec = random_spec(rng, "lstm", 3, 17, 1, True, proj_size)
    assert_matches_reference(spec, random_batch(rng, spec, (2, 0, 3)), isa=isa)


def test_rule_31_nan_in_a_zero_length_row(layer, spec, batch):
    """A row of length zero has no effect, whatever it contains."""
    for garbage in (np.nan, np.inf):
        x = batch.x.copy()
        x[np.array(LENGTHS) == 0] = garbage
        wanted = layer(np.nan_to_num(batch.x), batch.state, lengths=LENGTHS)
        assert_same_bits(layer(x, batch.state, lengths=LENGTHS), wanted)


def test_a_layer_is_immutable(layer):
    """Attributes that determine the layout of outputs can be neither set nor deleted."""
    for name in ("hidden_size", "input_size", "dtype", "num_layers"):
        with pytest.raises(AttributeError, match=name):
            setattr(layer, name, 1)
        with pytest.raises(AttributeError, match=name):
            delattr(layer, name)


def test_out_over_the_state_is_refused(rng):
    spec = random_spec(rng, "gru", 3, 5, 1)
    out = np.zeros((2, 4, 5), np.float32)
    with pytest.raises(ValueError, match="out overlaps state"):
        LAYERS["gru"](spec)(np.zeros((2, 4, 3), np.float32), out.reshape(-1)[:10].reshape(1, 2, 5), out=out)
