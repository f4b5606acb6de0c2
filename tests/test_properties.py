"""Random arguments of every kind give the reference's result or an exception that names the argument."""

import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from bits import assert_same_bits
from cases import LAYERS, assert_close, random_spec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fastrnn
from fastrnn import reference

REFUSALS = (TypeError, ValueError, MemoryError)
bounded = settings(
    max_examples=250, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)

seeds = st.integers(0, 2**32 - 1)
kinds = st.sampled_from(sorted(LAYERS))


@st.composite
def specs(draw, streams=False):
    kind = draw(kinds)
    options: dict[str, Any] = {"bias": draw(st.booleans())}
    if kind == "lstm":
        options["peephole"] = draw(st.booleans())
        options["coupled"] = draw(st.booleans())
    if kind == "gru":
        options["linear_before_reset"] = draw(st.booleans())
    spec = random_spec(
        np.random.default_rng(draw(seeds)),
        kind,
        draw(st.integers(0, 20)),
        draw(st.integers(1, 20)),
        draw(st.integers(1, 3)),
        not streams and draw(st.booleans()),
        draw(st.integers(0, 5)) if kind == "lstm" else 0,
        dtype=draw(st.sampled_from([np.float32, np.float64])),
        **options,
    )
    return replace(spec, batch_first=draw(st.booleans()))


LAYOUTS = {
    "c": np.ascontiguousarray,
    "fortran": np.asfortranarray,
    "negative": lambda a: np.flip(np.flip(a).copy()),
    "gaps": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "rows apart": lambda a: np.repeat(a, 3, axis=0)[1::3],
    "list": lambda a: a.tolist(),
}
layouts = st.sampled_from(sorted(LAYOUTS))
wrong_dtypes = st.sampled_from(["g", "i8", "u8", "c16", "O", "U3", "M8[s]", "V4"])  # also numbers beyond float64
wild = st.one_of(
    st.none(),
    st.text(max_size=3),
    st.binary(max_size=3),
    st.integers(),
    st.floats(),
    st.dictionaries(st.text(max_size=1), st.integers(), max_size=2),
    st.builds(object),
    st.recursive(st.one_of(st.integers(), st.floats(), st.none()), lambda s: st.lists(s, max_size=3), max_leaves=6),
    st.builds(
        lambda shape, dtype: np.zeros(shape, dtype),
        st.lists(st.integers(0, 4), max_size=5).map(tuple),
        st.sampled_from(["f4", "f8", "f2", "i8", "?", "O", "U1", ">f4", "c8"]),
    ),
)


@dataclass
class Call:
    """Arguments, and the names of those that do not fit."""

    x: Any
    state: Any
    lengths: Any
    plain_x: np.ndarray
    wrong: set[str]


def misfit(draw, array):
    """An array with another shape or dtype than these."""
    if draw(st.booleans()):
        return np.zeros(array.shape, draw(wrong_dtypes))
    change = draw(st.sampled_from(["wider", "deeper", "flat"]))
    if change == "wider":
        return np.zeros((*array.shape[:-1], array.shape[-1] + draw(st.integers(1, 3))), array.dtype)
    return array[None, None] if change == "deeper" else np.zeros(array.shape[-1], array.dtype)


@st.composite
def calls(draw, spec):
    rng = np.random.default_rng(draw(seeds))
    dtype = spec.cells[0].weight_ih.dtype
    B, T = draw(st.integers(0, 9)), draw(st.integers(0, 9))
    plain = rng.standard_normal((B, T, spec.input_size)).astype(dtype)
    wrong = {name for name in ("x", "state", "lengths") if draw(st.integers(0, 5)) == 0}
    x = plain if spec.batch_first else plain.swapaxes(0, 1)
    lists_fit = x.size and B
    layout = draw(layouts)
    x = LAYOUTS[layout](x) if layout != "list" or lists_fit else x
    if "x" in wrong:
        x = misfit(draw, np.asarray(x))

    state: Any = None
    if draw(st.booleans()) or "state" in wrong:
        h = rng.uniform(-1, 1, (len(spec.cells), B, spec.h_size)).astype(dtype)
        c = rng.uniform(-1, 1, (len(spec.cells), B, spec.hidden_size)).astype(dtype)
        parts = [LAYOUTS[draw(st.sampled_from(["c", "fortran", "negative", "gaps"]))](part) for part in (h, c)]
        if "state" in wrong:
            bad = draw(st.integers(0, 1)) if spec.kind == "lstm" else 0
            parts[bad] = misfit(draw, parts[bad])
        state = tuple(parts) if spec.kind == "lstm" else parts[0]
        if "state" in wrong and draw(st.booleans()):
            state = draw(st.sampled_from([(), "state", 1.5, {}, (h,), (h, c, c)]))

    lengths: Any = None
    if draw(st.booleans()) or "lengths" in wrong:
        lengths = rng.integers(0, T + 1, B).astype(draw(st.sampled_from(["i1", "u1", "i4", ">i8", "u8"])))
        lengths = lengths.tolist() if draw(st.booleans()) else lengths
        if "lengths" in wrong:
            values = [int(n) for n in lengths]
            choices: list[Any] = [[*values, 1], [values], ["1"] * (B + 1), [1.0] * (B + 1)]
            if values:
                row = draw(st.integers(0, B - 1))
                for bad in (-1, T + 1, 2**31, 2**63 - 1, 2**64, None, 0.5):
                    choices.append([*values[:row], bad, *values[row + 1 :]])
            lengths = draw(st.sampled_from(choices))
    return Call(x, state, lengths, plain, wrong)


def assert_names(error, names):
    message = str(error)
    assert message, "an exception without a message"
    assert any(re.search(rf"\b{re.escape(name)}\b", message) for name in names), f"{message!r} names none of {names}"


def parts_of(spec, state):
    return tuple(state) if spec.kind == "lstm" else (state, None)


def tolerance(spec):
    return 1e-12 if spec.cells[0].weight_ih.dtype == np.float64 else 5e-6


@bounded
@given(st.data(), specs(), st.sampled_from(["zero", "carry"]))
def test_layer_is_right_or_says_what_is_wrong(data, spec, past_end):
    layer = LAYERS[spec.kind](spec)
    known = np.ones((2, 3, spec.input_size), layer.dtype)
    before = layer(known)
    call = data.draw(calls(spec))
    try:
        y, last = layer(call.x, call.state, lengths=call.lengths, past_end=past_end)
    except REFUSALS as error:
        assert call.wrong, error
        assert_names(error, call.wrong)
    else:
        assert not call.wrong
        y = y if spec.batch_first else y.swapaxes(0, 1)
        wanted = reference.run(spec, call.plain_x, call.state, call.lengths, past_end)
        assert_close((y, *parts_of(spec, last)), wanted, tolerance(spec))
    assert_same_bits(layer(known), before)


@bounded
@given(st.data(), specs())
def test_unrolled_is_right_or_says_what_is_wrong(data, spec):
    layer = LAYERS[spec.kind](spec)
    call = data.draw(calls(spec))
    steps = data.draw(st.integers(0, 9)) if data.draw(st.booleans()) else call.plain_x.shape[1]
    fixed = layer.unroll(steps)
    wrong = (call.wrong - {"lengths"}) | ({"x"} if steps != call.plain_x.shape[1] else set())
    try:
        y, last = fixed(call.x, call.state)
    except REFUSALS as error:
        assert wrong, error
        assert_names(error, wrong)
    else:
        assert not wrong
        y = y if spec.batch_first else y.swapaxes(0, 1)
        assert_close((y, *parts_of(spec, last)), reference.run(spec, call.plain_x, call.state), tolerance(spec))


@bounded
@given(st.data(), specs(streams=True))
def test_stream_is_right_or_unchanged(data, spec):
    spec = replace(spec, batch_first=True)
    layer = LAYERS[spec.kind](spec)
    call = data.draw(calls(spec))
    rows, steps = call.plain_x.shape[:2]
    stream = layer.stream(rows)
    before = stream.snapshot()
    try:
        stream.state = call.state
    except REFUSALS as error:
        assert "state" in call.wrong, error
        assert_names(error, {"state"})
        assert stream.snapshot() == before
    else:
        assert "state" not in call.wrong
    state, before = stream.state, stream.snapshot()
    try:
        y = stream.run(call.x)
    except REFUSALS as error:
        assert "x" in call.wrong, error
        assert_names(error, {"x"})
        assert stream.snapshot() == before
        return
    assert "x" not in call.wrong
    wanted = reference.run(spec, call.plain_x, state)
    assert_close((y, *parts_of(spec, stream.state)), wanted, tolerance(spec))
    stream.restore(before)
    stepped = [stream.step(call.plain_x[:, step]) for step in range(steps)]
    if stepped:
        assert_same_bits(np.stack(stepped, 1), y)


@bounded
@given(wild, wild, wild, st.data())
def test_a_layer_survives_anything(x, state, lengths, data):
    spec = random_spec(np.random.default_rng(0), data.draw(kinds), 3, 4)
    layer = LAYERS[spec.kind](spec)
    good = np.ones((2, 3, 3), np.float32)
    before = layer(good)
    for arguments, named in (
        ({"x": x}, {"x"}),
        ({"x": good, "state": state}, {"state"}),
        ({"x": good, "lengths": lengths}, {"lengths"}),
        ({"x": good, "past_end": lengths}, {"past_end"}),
        ({"x": good, "mask": state}, {"mask"}),
        ({"x": good, "out": x}, {"out"}),
        ({"x": good, "casting": lengths}, {"casting"}),
        ({"x": x, "casting": "unsafe"}, {"x"}),
        ({"x": x, "state": state, "lengths": lengths}, {"x", "state", "lengths"}),
    ):
        try:
            layer(**arguments)
        except REFUSALS as error:
            assert_names(error, named)
        assert_same_bits(layer(good), before)


@bounded
@given(wild, wild, st.data())
def test_a_stream_survives_anything(x, state, data):
    spec = random_spec(np.random.default_rng(0), data.draw(kinds), 3, 4)
    stream = LAYERS[spec.kind](spec).stream(2)
    stream.run(np.ones((2, 2, 3), np.float32))
    for name, call in (("x", stream.step), ("x", stream.run), ("snapshot", stream.restore)):
        before = stream.snapshot()
        try:
            call(x)
        except REFUSALS as error:
            assert_names(error, {name})
            assert stream.snapshot() == before
    before = stream.snapshot()
    try:
        stream.state = state
    except REFUSALS as error:
        assert_names(error, {"state"})
        assert stream.snapshot() == before


@bounded
@given(st.data(), st.integers(0, 6), st.integers(0, 6), st.integers(0, 4), st.booleans(), layouts)
def test_pack_and_unpack_are_inverses(data, B, T, width, batch_first, layout):
    lengths = data.draw(st.lists(st.integers(0, T), min_size=B, max_size=B))
    plain = np.random.default_rng(B).standard_normal((B, T, width))
    for row, length in enumerate(lengths):
        plain[row, length:] = -1
    x = plain if batch_first else plain.swapaxes(0, 1)
    x = LAYOUTS[layout](x) if layout != "list" or x.size else x
    packed = fastrnn.pack(x, lengths, batch_first)
    found, found_lengths = fastrnn.unpack(packed, batch_first, -1, T)
    assert found_lengths.tolist() == lengths
    assert_same_bits(found if batch_first else found.swapaxes(0, 1), plain)


@bounded
@given(wild, wild)
def test_packing_survives_anything(x, y):
    good = fastrnn.pack(np.zeros((2, 3, 1)), [2, 3])
    for call, named in (
        (lambda: fastrnn.pack(x, y), {"x", "lengths"}),
        (lambda: fastrnn.pack(np.zeros((2, 3, 1)), y), {"lengths"}),
        (lambda: fastrnn.pack(np.zeros((2, 3, 1)), [2, 3], x, y), {"batch_first", "enforce_sorted", "lengths"}),
        (lambda: fastrnn.unpack(x), {"packed"}),
        (lambda: fastrnn.unpack(good, x, y), {"batch_first", "padding_value"}),
        (lambda: fastrnn.pack_sequence(x, y), {"sequences", "enforce_sorted"}),
        (lambda: fastrnn.pad_sequence(x, padding_value=y), {"sequences", "padding_value"}),
        (lambda: fastrnn.pad_sequence([[1], [2, 3]], x, padding_side=y), {"batch_first", "padding_side"}),
        (lambda: fastrnn.unpack_sequence(x), {"packed_sequences"}),
        (lambda: replace(good, data=x), {"data"}),
        (lambda: replace(good, batch_sizes=x), {"batch_sizes", "data"}),
        (lambda: replace(good, sorted_indices=x), {"sorted_indices", "unsorted_indices", "batch_sizes"}),
        (lambda: replace(good, unsorted_indices=x), {"unsorted_indices"}),
    ):
        try:
            call()
        except REFUSALS as error:
            assert_names(error, named)


indices = st.lists(st.integers(-2, 5), max_size=4).map(lambda values: np.array(values, np.int64))


@bounded
@given(st.integers(0, 6), indices, indices, indices)
def test_packed_parts_are_consistent_or_refused(steps, batch_sizes, sorted_indices, unsorted_indices):
    """Whatever Packed accepts, a layer can run and unpack can convert."""
    try:
        packed = fastrnn.Packed(np.ones((steps, 3), np.float32), batch_sizes, sorted_indices, unsorted_indices)
    except REFUSALS as error:
        assert_names(error, {"data", "batch_sizes", "sorted_indices", "unsorted_indices"})
        return
    padded, lengths = fastrnn.unpack(packed)
    layer = fastrnn.GRU(random_spec(np.random.default_rng(0), "gru", 3, 4, 2, True))
    y, last = layer(packed)
    wanted, wanted_last = layer(padded, lengths=lengths)
    assert_same_bits(fastrnn.unpack(y)[0], wanted)
    assert_same_bits(last, wanted_last)
