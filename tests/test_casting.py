"""Input of other types: what is converted by default, what on request, and what never."""

import numpy as np
import pytest
from bits import assert_same_bits
from cases import LAYERS, random_batch, random_spec

import fastrnn

LENGTHS = (3, 0, 4, 1, 3)
WORDS = ["no", "equiv", "safe", "same_kind", "unsafe"]
SAFE = {"f4": ["f2", "f4", ">f4", "?", "i1", "u1", "i2", "u2", ">i2"]}
SAFE["f8"] = [*SAFE["f4"], "f8", ">f8", "i4", "u4"]
#: NumPy counts 64-bit integers into float64 as safe, but they may lose bits.
ON_REQUEST = {"f4": ["f8", ">f8", "g", "i4", "u4", "i8", "u8"], "f8": ["g", "i8", "u8"]}
NEVER = ["c8", "O", "U1", "S1", "M8[s]", "m8[s]"]


@pytest.fixture(params=LAYERS)
def kind(request):
    return request.param


def build(rng, kind, dtype="f4"):
    """A layer, and x and a state of small whole numbers, which every type can represent."""
    spec = random_spec(rng, kind, 3, 5, 2, dtype=dtype)
    x = rng.integers(0, 2, (len(LENGTHS), 4, 3)).astype(dtype)
    parts = [rng.integers(0, 2, (2, len(LENGTHS), 5)).astype(dtype) for _ in range(2)]
    return LAYERS[kind](spec), x, (parts[0], parts[1]) if kind == "lstm" else parts[0]


def of_type(state, dtype):
    return tuple(part.astype(dtype) for part in state) if isinstance(state, tuple) else state.astype(dtype)


def calls(layer, x, state, **options):
    """Every way to pass inputs, as functions without arguments that return a result."""
    rows = [row[:length] for row, length in zip(x, LENGTHS, strict=True)]

    def of_stream(name, chunk):
        stream = layer.stream(len(LENGTHS))
        return getattr(stream, name)(chunk, **options)

    return {
        "array": lambda: layer(x, state, lengths=LENGTHS, **options),
        "list": lambda: layer(rows, state, **options),
        "packed": lambda: layer(fastrnn.pack(x, LENGTHS), state, **options),
        "unrolled": lambda: layer.unroll(4)(x, state, **options),
        "run": lambda: of_stream("run", x),
        "step": lambda: of_stream("step", x[:, 0]),
    }


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_what_loses_nothing_is_converted(rng, kind, dtype):
    layer, x, state = build(rng, kind, dtype)
    for name, wanted in calls(layer, x, state).items():
        for found in SAFE[dtype]:
            for options in ({}, {"casting": "safe"}, {"casting": "same_kind"}, {"casting": "unsafe"}):
                call = calls(layer, x.astype(found), of_type(state, found), **options)[name]
                assert_same_bits(call(), wanted())


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_what_may_lose_something_is_converted_on_request(rng, kind, dtype):
    layer, x, state = build(rng, kind, dtype)
    for name, wanted in calls(layer, x, state).items():
        for found in ON_REQUEST[dtype]:
            for casting in ("same_kind", "unsafe"):
                call = calls(layer, x.astype(found), of_type(state, found), casting=casting)[name]
                assert_same_bits(call(), wanted())
            message = rf'x.* is .*, wanted {np.dtype(dtype)}; casting="same_kind" converts it'
            for options in ({}, {"casting": "safe"}, {"casting": "equiv"}, {"casting": "no"}):
                with pytest.raises(TypeError, match=message):
                    calls(layer, x.astype(found), state, **options)[name]()


@pytest.mark.parametrize("casting", WORDS)
@pytest.mark.parametrize("found", NEVER)
def test_what_is_no_real_number_is_never_converted(rng, kind, found, casting):
    layer, x, state = build(rng, kind)
    for call in calls(layer, np.zeros(x.shape, found), state, casting=casting).values():
        with pytest.raises(TypeError, match=r"x.* is [^;]*, wanted float32$"):
            call()


@pytest.mark.parametrize("casting", WORDS)
def test_as_numpy_says(rng, kind, casting):
    """Each casting rule allows what np.can_cast allows for real numbers to float32."""
    layer, x, _ = build(rng, kind)
    for found in [*SAFE["f4"], *ON_REQUEST["f4"]]:
        for name, call in calls(layer, x.astype(found), None, casting=casting).items():
            if np.can_cast(found, "f4", casting):
                assert_same_bits(call(), calls(layer, x, None)[name]())
            else:
                with pytest.raises(TypeError, match=r'x.* is .*; casting="(equiv|safe|same_kind)" converts it'):
                    call()


def test_states_are_converted_too(rng, kind):
    layer, x, state = build(rng, kind)
    wide = of_type(state, "f8")
    for name in ("array", "list", "packed", "unrolled"):
        assert_same_bits(calls(layer, x, wide, casting="same_kind")[name](), calls(layer, x, state)[name]())
        with pytest.raises(TypeError, match=r'state.* is float64, wanted float32; casting="same_kind"'):
            calls(layer, x, wide)[name]()
    stream = layer.stream(len(LENGTHS))
    stream.state = of_type(state, "f2")
    assert_same_bits(stream.state, fastrnn.State(*state) if kind == "lstm" else state)
    with pytest.raises(TypeError, match=r"state.* is float64"):
        stream.state = wide


def test_conversion_rounds_as_numpy(rng, kind):
    """The results have the bits of x.astype, including padding."""
    spec = random_spec(rng, kind, 3, 5, 2)
    layer, batch = LAYERS[kind](spec), random_batch(rng, spec, (3, 0, 7, 1, 3))
    wide = np.float64(1.1) * batch.x
    state = of_type(batch.state, "f8")
    found = layer(wide, state, lengths=batch.lengths, casting="same_kind")
    assert_same_bits(found, layer(wide.astype("f4"), batch.state, lengths=batch.lengths))
    assert not np.array_equal(wide, wide.astype("f4"), equal_nan=True)


@pytest.mark.parametrize("bad", ["sure", "SAFE", None, 1, np.zeros(2), ["safe"]], ids=repr)
def test_words_that_are_none(rng, kind, bad):
    """Unknown rules are refused even if nothing has to be converted."""
    layer, x, state = build(rng, kind)
    for call in calls(layer, x, state, casting=bad).values():
        with pytest.raises(ValueError, match=r"casting is .*, wanted 'no', 'equiv', 'safe', 'same_kind' or 'unsafe'"):
            call()


def test_a_stream_is_unchanged_by_a_refusal(rng, kind):
    layer, x, _ = build(rng, kind)
    stream = layer.stream(len(LENGTHS))
    stream.run(x)
    before = stream.snapshot()
    for call in (lambda: stream.step(x[:, 0].astype("f8")), lambda: stream.run(x.astype("f8"))):
        with pytest.raises(TypeError):
            call()
    assert stream.snapshot() == before


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_nests_of_numbers(rng, kind, dtype):
    """Python's numbers have no type: they take the layer's, in the form of an array or of rows."""
    layer, x, state = build(rng, kind, dtype)
    nest = x.tolist()
    nested_state = tuple(part.tolist() for part in state) if kind == "lstm" else state.tolist()
    for numbers in (nest, tuple(map(tuple, nest)), [[[int(n) for n in step] for step in row] for row in nest]):
        for casting in WORDS:
            found = layer(numbers, nested_state, lengths=LENGTHS, casting=casting)
            assert_same_bits(found, layer(x, state, lengths=LENGTHS))
    assert_same_bits(layer(nest[0]), layer(x[0]))
    stream, other = layer.stream(len(LENGTHS)), layer.stream(len(LENGTHS))
    assert_same_bits(stream.step([row[0] for row in nest]), other.step(x[:, 0]))
    assert_same_bits(stream.run(nest), other.run(x))
    assert_same_bits(layer.unroll(4)(nest, nested_state), layer.unroll(4)(x, state))


@pytest.mark.parametrize("container", [list, tuple])
def test_ragged_nests_of_numbers(rng, kind, container):
    """Rows of unequal length are a list of sequences."""
    layer, x, state = build(rng, kind)
    lengths = (3, 2, 4, 1, 3)
    rows = [row[:length] for row, length in zip(x, lengths, strict=True)]
    wanted = layer(rows, state)
    y, last = layer([container(row.tolist()) for row in rows], state)
    assert type(y) is list
    assert_same_bits((y, last), wanted)
    assert_same_bits(layer([rows[0].tolist(), *rows[1:]], state), wanted)  # some rows spelt out, some arrays
    with pytest.raises(TypeError, match="lengths is given, but x is a list: wanted None"):
        layer([row.tolist() for row in rows], lengths=lengths)


def test_integers_beyond_64_bits(rng):
    """Integers beyond 64 bits are numbers like others, as long as float32 holds them."""
    layer = fastrnn.GRU(random_spec(rng, "gru", 3, 4))
    wanted = layer(np.array([[[1.0, 2.0, 1e30]]], np.float32))
    assert_same_bits(layer([[[1.0, 2.0, 10**30]]]), wanted)


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        ([[[1.0, 2.0, 3e300]]], ValueError, "x holds numbers beyond float32"),
        ([[[1.0, 2.0, -(10**39)]]], ValueError, "x holds numbers beyond float32"),
        ([[[1.0, 2.0, 10**400]]], ValueError, "x holds numbers beyond float32"),
        ([[[1.0, 2.0, np.float64(3)]]], TypeError, "x is float64, wanted float32"),
        ([[[1.0, 2.0, 3j]]], TypeError, "x is complex128, wanted float32"),
        ([[[1.0, 2.0, None]]], TypeError, "x is object, wanted float32"),
        ([[["a", "b", "c"]]], TypeError, "x is <U1, wanted float32"),
        ([[[1.0, 2.0, 3.0], [1.0]]], TypeError, "x is list, wanted an array"),
        ([[1.0, 2.0, 3.0], [1.0]], ValueError, r"x\[0\] has shape \(3,\), wanted \(T, 3\)"),
        ([[[1.0, 2.0, 3.0]], [[1.0, 2.0], [3.0, 4.0]]], ValueError, r"x\[1\] has shape \(2, 2\).*wanted 3"),
        ([[[1.0, 2.0, 3.0]], [[1.0, 2.0, 3e300]] * 2], ValueError, r"x\[1\] holds numbers beyond float32"),
        (None, TypeError, "x is NoneType, wanted an array of float32"),
        (fastrnn, TypeError, "x is module, wanted an array of float32"),
    ],
    ids=range(13),
)
def test_nests_refused(rng, kind, x, error, message):
    layer, _, _ = build(rng, kind)
    with pytest.raises(error, match=message):
        layer(x)


def test_infinity_is_no_overflow(rng, kind):
    layer, _, _ = build(rng, kind)
    nest = [[[float("inf"), float("nan"), 0.0]]]
    assert_same_bits(layer(nest), layer(np.array(nest, "f4")))


def test_torchs_tensors(rng, kind):
    """Tensors are accepted by their types, as arrays are."""
    torch = pytest.importorskip("torch")
    layer, x, state = build(rng, kind)
    assert_same_bits(layer(torch.from_numpy(x).half(), state), layer(x, state))
    assert_same_bits(layer(torch.from_numpy(x).double(), state, casting="same_kind"), layer(x, state))
    packed = torch.nn.utils.rnn.pack_sequence([torch.from_numpy(x[0]).double()])
    with pytest.raises(TypeError, match=r'x.data is float64, wanted float32; casting="same_kind"'):
        layer(packed)
    y, _ = layer(packed, casting="same_kind")
    assert y.data.dtype == torch.float32
    assert_same_bits(y.data.numpy(), layer(x[0])[0])


def test_out_keeps_the_layers_type(rng, kind):
    layer, x, state = build(rng, kind)
    out = np.empty((len(LENGTHS), 4, 5), np.float32)
    assert_same_bits(layer(x.astype("f8"), of_type(state, "f8"), out=out, casting="same_kind")[0], layer(x, state)[0])
    with pytest.raises(TypeError, match="out is <f8, wanted <f4"):
        layer(x.astype("f8"), out=out.astype("f8"), casting="same_kind")
    with pytest.raises(TypeError, match="mask is of type float32, wanted booleans"):
        layer(x, mask=np.ones(x.shape[:2], "f4"), casting="unsafe")


def test_packed_dimensions(rng, kind):
    layer, _, _ = build(rng, kind)
    for data in (np.zeros(4, "f4"), np.zeros((4, 3, 1), "f4")):
        with pytest.raises(ValueError, match=r"x.data has shape .*, wanted \(sum of lengths, 3\)"):
            layer(fastrnn.Packed(data, [3, 1]))
    with pytest.raises(TypeError, match="x is Packed, wanted an array of float32"):
        layer.unroll(2)(fastrnn.Packed(np.zeros((4, 3), "f4"), [3, 1]))
