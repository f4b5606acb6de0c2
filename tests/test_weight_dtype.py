"""Layers that keep their weights in a smaller type: what float16 computes, where a type can be given, what is refused.

What int8 computes is in test_int8.py.
"""

import copy
import json
import pickle
import re
import struct
from dataclasses import replace

import cases
import files
import keras_file_cases
import numpy as np
import pytest
from bits import MODELS, assert_same_bits
from cases import LAYERS, random_batch, random_options, random_spec

import fastrnn
import fastrnn.keras
import fastrnn.nn
from fastrnn import _core, cli, int8_weights
from fastrnn.spec import WEIGHTS

ISAS = _core.available_isas()

every_type = pytest.mark.parametrize("weight_dtype", ["float16", "int8"])


def round_array(array, weight_dtype="float16"):
    """A matrix of weights, rounded to the type, as float32."""
    if weight_dtype == "int8":
        return int8_weights.widen(*int8_weights.quantize(array))
    return array.astype(np.float16).astype(np.float32)


def rounded(spec, weight_dtype="float16"):
    """The spec with every weight rounded to the type."""

    def values(array):
        return None if array is None else round_array(array, weight_dtype)

    return replace(
        spec, cells=[replace(cell, **{part: values(getattr(cell, part)) for part in WEIGHTS}) for cell in spec.cells]
    )


def fingerprint(layer):
    return layer._engine.fingerprint


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("form", ["forward", "both", "reverse"])
def test_float16_has_the_bits_of_rounded_float32(rng, name, form, isa):
    """C's test_weights.c has every size; here are the paths of Python."""
    kind, options = MODELS[name]
    spec = random_spec(rng, kind, 5, 19, 2, form == "both", **options)
    spec = replace(spec, reverse=form == "reverse")
    small = LAYERS[kind](spec, isa=isa, weight_dtype="float16")
    wide = LAYERS[kind](rounded(spec), isa=isa)
    batch = random_batch(rng, spec)
    wanted = wide(batch.x, batch.state, lengths=batch.lengths)
    assert_same_bits(small(batch.x, batch.state, lengths=batch.lengths), wanted)
    packed = fastrnn.pack(batch.x, batch.lengths)
    assert_same_bits(small(packed, batch.state), wide(packed, batch.state))
    mask = rng.random(batch.x.shape[:2]) < 0.5
    x = np.nan_to_num(batch.x)
    assert_same_bits(small(x, mask=mask), wide(x, mask=mask))
    assert_same_bits(small.unroll(4)(x[:, :4]), wide.unroll(4)(x[:, :4]))
    if form == "forward":
        ours, theirs = small.stream(9), wide.stream(9)
        assert_same_bits(ours.run(x), theirs.run(x))
        assert_same_bits([ours.step(x[:, 0]), ours.state], [theirs.step(x[:, 0]), theirs.state])


@pytest.mark.parametrize("kind", LAYERS)
def test_options_of_their_own_for_each_cell(rng, kind):
    for proj_size in (0, 4) if kind == "lstm" else (0,):
        spec = random_options(rng, random_spec(rng, kind, 3, 17, 2, True, proj_size))
        batch = random_batch(rng, spec)
        found, wanted = LAYERS[kind](spec, weight_dtype="float16"), LAYERS[kind](rounded(spec))
        assert_same_bits(*(one(batch.x, batch.state, lengths=batch.lengths) for one in (found, wanted)))


def test_float64_is_rounded_once(rng):
    """1 + 2^-11 + 2^-40 is above the tie between 1 and 1 + 2^-10; as float32 it would be the tie itself."""
    spec = random_spec(rng, "lstm", 3, 5, proj_size=2, dtype=np.float64)
    for part in WEIGHTS:
        getattr(spec.cells[0], part)[...] = 1 + 2**-11 + 2**-40
    layer = fastrnn.LSTM(spec, dtype="float32", weight_dtype="float16")
    for part in WEIGHTS:
        assert np.all(getattr(layer._unpack().cells[0], part) == 1 + 2**-10)


def test_infinite_weights_and_nan_stay_as_they_are(rng):
    spec = random_spec(rng, "gru", 3, 5)
    spec.cells[0].weight_ih[:3, 0] = np.nan, np.inf, -np.inf
    layer = fastrnn.GRU(spec, weight_dtype="float16")
    np.testing.assert_array_equal(layer._unpack().cells[0].weight_ih[:3, 0], [np.nan, np.inf, -np.inf])
    x = rng.standard_normal((2, 3, 3)).astype("f4")
    assert_same_bits(layer(x), fastrnn.GRU(rounded(spec))(x))


def test_nan_in_one_row_touches_no_other(rng):
    layer = fastrnn.LSTM(random_spec(rng, "lstm", 3, 17), weight_dtype="float16")
    x = rng.standard_normal((7, 4, 3)).astype("f4")
    wanted, _ = layer(x)
    x[2, 1, 0], x[4, 0, 2] = np.nan, np.inf
    found, _ = layer(x)
    assert_same_bits(np.delete(found, (2, 4), 0), np.delete(wanted, (2, 4), 0))
    assert np.isnan(found[2, 1:]).all()


# Where the type can be given


@every_type
def test_every_way_to_make_a_layer(rng, tmp_path, weight_dtype):
    spec = random_spec(rng, "lstm", 3, 16, 2, True)
    arrays = files.state_dict(spec)
    plain = fastrnn.LSTM.from_state_dict(arrays)
    layer = plain.with_weight_dtype(weight_dtype)
    assert layer.weight_dtype == weight_dtype and plain.weight_dtype == "float32"
    assert layer is not plain and fingerprint(layer) != fingerprint(plain)
    np.savez(tmp_path / "model.npz", **arrays)
    plain.save(tmp_path / "wide")
    layer.save(tmp_path / "small")
    others = [
        fastrnn.LSTM(spec, weight_dtype=weight_dtype),
        fastrnn.LSTM(replace(spec, weight_dtype=weight_dtype)),
        fastrnn.LSTM(replace(spec, weight_dtype=weight_dtype), weight_dtype=weight_dtype),
        fastrnn.LSTM(rounded(spec, weight_dtype), weight_dtype=weight_dtype),
        fastrnn.LSTM.from_state_dict(arrays, weight_dtype=weight_dtype),
        fastrnn.load(tmp_path / "model.npz", weight_dtype=weight_dtype),
        fastrnn.load(tmp_path / "wide", weight_dtype=weight_dtype),
        fastrnn.load(tmp_path / "small"),
        fastrnn.load(tmp_path / "small", weight_dtype=weight_dtype),
        pickle.loads(pickle.dumps(layer)),
        copy.deepcopy(layer),
    ]
    for other in others:
        assert other.weight_dtype == weight_dtype and fingerprint(other) == fingerprint(layer)
        assert other.nbytes == layer.nbytes < plain.nbytes
    assert fingerprint(plain.with_weight_dtype("float32")) == fingerprint(plain)


@every_type
def test_from_torch(rng, weight_dtype):
    torch = pytest.importorskip("torch")
    module = torch.nn.GRU(3, 17, 2, batch_first=True)
    layer = fastrnn.GRU.from_torch(module, weight_dtype=weight_dtype)
    assert fingerprint(layer) == fingerprint(fastrnn.GRU.from_torch(module).with_weight_dtype(weight_dtype))
    cell = fastrnn.GRU.from_torch(torch.nn.GRUCell(3, 5).half(), weight_dtype=weight_dtype)
    assert cell.weight_dtype == weight_dtype  # whose weights are float16 already


@every_type
def test_from_flax(weight_dtype):
    gates = {f"i{gate}": {"kernel": np.ones((3, 2), "f4"), "bias": np.zeros(2, "f4")} for gate in "rzn"}
    params = gates | {f"h{gate}": {"kernel": np.ones((2, 2), "f4")} for gate in "rzn"}
    assert fastrnn.GRU.from_flax(params, weight_dtype=weight_dtype).weight_dtype == weight_dtype


@every_type
def test_keras(rng, tmp_path, weight_dtype):
    def weights(inputs):
        shapes = ((inputs, 16), (4, 16), (16,))
        return [rng.uniform(-0.5, 0.5, shape).astype("f4") for shape in shapes]

    def layer_of(weights, weight_dtype=weight_dtype, **options):
        return fastrnn.keras.LSTM(4, return_sequences=True, weights=weights, weight_dtype=weight_dtype, **options)

    given, x = weights(3), rng.standard_normal((2, 5, 3)).astype("f4")
    # of the transposed kernels, as an output unit's weights are a column of Keras's
    small = [round_array(array.T, weight_dtype).T for array in given[:2]] + given[2:]
    layer, wanted = layer_of(given), layer_of(small)
    if weight_dtype == "float16":
        assert_same_bits(layer(x), layer_of(small, None)(x))
    assert_same_bits(layer(x), wanted(x))
    assert 0 < np.abs(layer(x) - layer_of(given, None)(x)).max() < 2e-2
    assert_same_bits(layer.get_weights(), given)
    assert_same_bits(pickle.loads(pickle.dumps(layer))(x), wanted(x))
    assert_same_bits(layer_of(given, None).with_weight_dtype(weight_dtype)(x), wanted(x))
    for backward in (None, layer_of(None, None, go_backwards=True)):  # with and without the type
        both = fastrnn.keras.Bidirectional(layer, backward_layer=backward, weights=given + given)
        apart = small + (small if backward is None else given)
        assert_same_bits(both(x), fastrnn.keras.Bidirectional(wanted, backward_layer=backward, weights=apart)(x))
    wide = layer_of(given, None)
    model = fastrnn.keras.Sequential([fastrnn.keras.Masking(0.0), wide, fastrnn.keras.Bidirectional(wide)])
    model.layers[-1].set_weights(weights(4) + weights(4))
    smaller = model.with_weight_dtype(weight_dtype)
    assert smaller.layers[1].weight_dtype == weight_dtype and 0 < np.abs(smaller(x) - model(x)).max() < 4e-2


@every_type
def test_a_keras_file(tmp_path, weight_dtype):
    path = tmp_path / "model.keras"
    path.write_bytes(keras_file_cases.Golden().read("keras3/both-stack.keras"))
    assert fastrnn.load(path, weight_dtype=weight_dtype).weight_dtype == weight_dtype


@every_type
def test_nn(rng, weight_dtype):
    weights = {"kernel": rng.uniform(-0.5, 0.5, (7, 16)).astype("f4"), "bias": np.zeros(16, "f4")}
    # rows of inputs and of states are matrices of their own, and their columns are of one output unit
    parts = [round_array(part.T, weight_dtype).T for part in np.split(weights["kernel"], [3])]
    x = rng.standard_normal((2, 5, 3)).astype("f4")
    wide_type = None if weight_dtype == "float16" else weight_dtype
    small = fastrnn.nn.rnn_cell.BasicLSTMCell(4, weights=weights, weight_dtype=weight_dtype)
    wide = fastrnn.nn.rnn_cell.LSTMCell(4, weights=weights | {"kernel": np.concatenate(parts)}, weight_dtype=wide_type)
    assert_same_bits(*(fastrnn.nn.dynamic_rnn(cell, x, dtype="f4") for cell in (small, wide)))
    second = {"kernel": rng.uniform(-0.5, 0.5, (8, 16)).astype("f4"), "bias": np.zeros(16, "f4")}
    stack = [
        fastrnn.nn.rnn_cell.MultiRNNCell([cell, fastrnn.nn.rnn_cell.LSTMCell(4, weights=second)])
        for cell in (small, wide)
    ]
    assert_same_bits(*(fastrnn.nn.dynamic_rnn(cell, x, dtype="f4") for cell in stack))
    with pytest.raises(ValueError, match=f"weight_dtype is '{weight_dtype}' and dtype float64"):
        fastrnn.nn.rnn_cell.LSTMCell(4, weights=weights, dtype="f8", weight_dtype=weight_dtype)


@pytest.mark.parametrize("weight_dtype, ratio", [("float16", 0.5), ("int8", 0.26)])
def test_what_a_layer_says(rng, weight_dtype, ratio):
    layer = fastrnn.LSTM(random_spec(rng, "lstm", 128, 128), weight_dtype=weight_dtype)
    assert repr(layer).endswith(f"dtype=float32, weight_dtype='{weight_dtype}')")
    assert ratio < layer.nbytes / fastrnn.LSTM(random_spec(rng, "lstm", 128, 128)).nbytes < ratio + 0.005
    assert fastrnn.LSTM(random_spec(rng, "lstm", 2, 2, dtype=np.float64)).weight_dtype == "float64"


@every_type
def test_snapshots_fit_the_same_weights_alone(rng, weight_dtype):
    spec = rounded(random_spec(rng, "gru", 3, 5), weight_dtype)
    small, *others = (fastrnn.GRU(spec, weight_dtype=name) for name in (weight_dtype, "float32", "float16", "int8"))
    stream = small.stream(2)
    stream.step(np.ones((2, 3), "f4"))
    fastrnn.GRU(spec, weight_dtype=weight_dtype).stream(2).restore(stream.snapshot())
    for other in others:
        if other.weight_dtype != weight_dtype:
            with pytest.raises(ValueError, match="of a layer with other options or weights"):
                other.stream(2).restore(stream.snapshot())


# What is refused


def test_weights_out_of_range_are_named(rng):
    spec = random_spec(rng, "lstm", 3, 5, 2, proj_size=2)
    spec.cells[0].weight_ih[7, 1], spec.cells[0].weight_ih[9, 2] = 65520, 1e9
    spec.cells[1].weight_hh[0, 1], spec.cells[1].weight_hr[1, 4] = -70000, -3e38
    spec.cells[0].bias_ih[0] = 1e30  # stays float32
    with pytest.raises(ValueError) as caught:
        fastrnn.LSTM(spec, weight_dtype="float16")
    assert str(caught.value) == (
        "weight_ih_l0[7, 1] is 65520.0, out of float16's range: wanted at most 65504 (2 weights are); "
        "weight_hh_l1[0, 1] is -70000.0, out of float16's range: wanted at most 65504; "
        f"weight_hr_l1[1, 4] is {np.float32(-3e38)}, out of float16's range: wanted at most 65504"
    )
    with pytest.raises(ValueError, match=r"weight_ih_l0\[7, 1\] is 65520.0"):
        fastrnn.LSTM(spec).with_weight_dtype("float16")
    with pytest.raises(ValueError, match=r"weight_ih_l0\[0, 0\] is 65520.0"):
        fastrnn.keras.SimpleRNN(
            2, weights=[np.full((1, 2), 65520.0), np.ones((2, 2)), np.ones(2)], weight_dtype="float16"
        )


def test_weights_that_are_not_finite_are_named(rng):
    spec = random_spec(rng, "lstm", 3, 5, 2, proj_size=2, dtype=np.float64)
    spec.cells[0].weight_ih[7, 1], spec.cells[0].weight_ih[9, 2] = np.nan, np.inf
    spec.cells[1].weight_hh[0, 1], spec.cells[1].weight_hr[1, 4] = -np.inf, 1e39
    spec.cells[0].bias_ih[0] = np.inf  # stays what it is
    with pytest.raises(ValueError) as caught:
        fastrnn.LSTM(spec, dtype="float32", weight_dtype="int8")
    wanted = "wanted finite float32 numbers, for int8"
    assert str(caught.value) == (
        f"weight_ih_l0[7, 1] is nan, {wanted} (2 weights are); weight_hh_l1[0, 1] is -inf, {wanted}; "
        f"weight_hr_l1[1, 4] is 1e+39, {wanted}"
    )
    with pytest.raises(ValueError, match=r"weight_ih_l0\[1, 0\] is inf"):
        weights = [np.array([[1], [np.inf]]).T.repeat(2, 0), np.ones((2, 2)), np.ones(2)]
        fastrnn.keras.SimpleRNN(2, weights=weights, weight_dtype="int8")(np.ones((1, 1, 2), "f4"))


def test_sums_that_could_overflow_are_named():
    k = int8_weights.MOST_COLUMNS
    assert k * 127**2 <= 2**31 - 1 < (k + 1) * 127**2
    for size in (k, k + 1):
        spec = fastrnn.LayerSpec("rnn", [fastrnn.CellSpec(np.ones((1, size), "f4"), np.ones((1, 1), "f4"))], size, 1)
        if size == k:
            assert fastrnn.RNN(spec, weight_dtype="int8").weight_dtype == "int8"
            continue
        with pytest.raises(ValueError) as caught:
            fastrnn.RNN(spec, weight_dtype="int8")
        assert str(caught.value) == (
            "weight_ih_l0 has 133145 columns, wanted at most 133144, for int8: sums of products have 32 bits"
        )
        assert fastrnn.RNN(spec, weight_dtype="float16").weight_dtype == "float16"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight_dtype": "half"}, "weight_dtype is 'half', wanted None or one of float32, float16, int8"),
        ({"weight_dtype": ["float16"]}, r"weight_dtype is \['float16'\], wanted None or one of"),
        ({"weight_dtype": np.float16}, "weight_dtype is <class 'numpy.float16'>, wanted None or one of"),
        ({"weight_dtype": "float16", "backend": "blas"}, "weight_dtype is 'float16' and backend 'blas', wanted"),
        ({"weight_dtype": "float16", "dtype": "float64"}, "weight_dtype is 'float16' and dtype float64, wanted"),
        ({"weight_dtype": "int8", "backend": "blas"}, "weight_dtype is 'int8' and backend 'blas', wanted"),
        ({"weight_dtype": "int8", "dtype": "float64"}, "weight_dtype is 'int8' and dtype float64, wanted"),
        ({"weight_dtype": "float32", "dtype": "float64"}, "weight_dtype is 'float32' and dtype float64, wanted"),
    ],
)
def test_refused_options(rng, options, message):
    spec = random_spec(rng, "rnn", 2, 3)
    with pytest.raises(ValueError, match=message):
        fastrnn.RNN(spec, **options)
    if len(options) == 1:
        with pytest.raises(ValueError, match=message):
            fastrnn.keras.SimpleRNN(3, **options)


@every_type
def test_other_types_are_made_from_float32_only(rng, weight_dtype):
    spec = random_spec(rng, "rnn", 2, 3)
    small = fastrnn.RNN(spec, weight_dtype=weight_dtype)
    for name in ("float32", "float16", "int8"):
        with pytest.raises(ValueError, match=f"the layer's weights are {weight_dtype}, wanted float32"):
            small.with_weight_dtype(name)
    with pytest.raises(ValueError, match="the layer's weights are float64, wanted float32"):
        fastrnn.RNN(spec, dtype="float64").with_weight_dtype(weight_dtype)
    with pytest.raises(ValueError, match="backend 'blas'"):
        fastrnn.RNN(spec, backend="blas").with_weight_dtype(weight_dtype)
    other = {"float16": "int8", "int8": "float16"}[weight_dtype]
    with pytest.raises(ValueError, match=f"weight_dtype is '{other}', but the weights are {weight_dtype} already"):
        fastrnn.RNN(replace(spec, weight_dtype=weight_dtype), weight_dtype=other)


def test_without_vector_kernels_smaller_weights_are_fused(rng, monkeypatch):
    monkeypatch.setattr(_core, "available_isas", lambda *_: ["scalar"])
    spec = random_spec(rng, "rnn", 2, 3)
    assert fastrnn.RNN(spec).backend == "blas" and fastrnn.RNN(spec, weight_dtype="float16").backend == "fused"


# Files and commands


def header_of(path):
    data = path.read_bytes()
    return json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])


@every_type
def test_a_file_holds_the_type(rng, tmp_path, weight_dtype):
    spec = random_spec(rng, "lstm", 3, 5, 2, proj_size=2, peephole=True)
    layer = LAYERS["lstm"](spec, weight_dtype=weight_dtype)
    layer.save(tmp_path / "small")
    fastrnn.LSTM(spec).save(tmp_path / "wide")
    header = header_of(tmp_path / "small")
    entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
    small = [name for name in entries if name.startswith("weight") and not name.endswith("_scale")]
    assert {entries[name]["dtype"] for name in small} == {{"float16": "F16", "int8": "I8"}[weight_dtype]}
    assert len(small) == 6
    others = {name: entry for name, entry in entries.items() if name not in small}
    assert {entry["dtype"] for entry in others.values()} == {"F32"}
    scales = {f"{name}_scale": entries[name]["shape"][:1] for name in small} if weight_dtype == "int8" else {}
    assert {name: others[name]["shape"] for name in others if name.endswith("_scale")} == scales
    assert len(others) == 6 + len(scales)
    assert json.loads(header["__metadata__"]["config"])["weight_dtype"] == weight_dtype
    assert "weight_dtype" not in header_of(tmp_path / "wide")["__metadata__"]["config"]
    for entry in entries.values():
        assert entry["data_offsets"][0] % {"F32": 4, "F16": 2, "I8": 1}[entry["dtype"]] == 0
    fastrnn.load(tmp_path / "small").save(tmp_path / "again")
    assert (tmp_path / "small").read_bytes() == (tmp_path / "again").read_bytes()


def test_a_file_of_int8_has_a_quarter_of_the_bytes(rng, tmp_path):
    layer = fastrnn.LSTM(random_spec(rng, "lstm", 128, 128))
    layer.save(tmp_path / "wide")
    layer.with_weight_dtype("int8").save(tmp_path / "small")
    assert (tmp_path / "small").stat().st_size < 0.27 * (tmp_path / "wide").stat().st_size


def replace_in_header(path, old, new):
    """Replace text of the header, escaped as in its metadata, where it is once."""
    old, new = (json.dumps(text)[1:-1].encode() for text in (old, new))
    data = path.read_bytes()
    assert data.count(old) == 1
    length = struct.unpack("<Q", data[:8])[0] + len(new) - len(old)
    path.write_bytes(struct.pack("<Q", length) + data[8:].replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"float16"', '"float61"', "weight_dtype is 'float61', wanted float16 or int8"),
        ('"float16"', '["f16", 1]', "weight_dtype is .*, wanted float16 or int8"),
        (
            '"dtype": "float32"',
            '"dtype": "float64"',
            "weight_dtype is 'float16', wanted float16 or int8, of dtype float",
        ),
        ('"weight_dtype": "float16"', '"weight_dtype": null', "weight_hh_l0 is float16, wanted float32"),
        ('"weight_dtype": "float16"', '"weight_dtype": "int8"', "weight_hh_l0 is float16, wanted int8"),
    ],
)
def test_a_file_whose_type_does_not_fit(rng, tmp_path, old, new, message):
    fastrnn.GRU(random_spec(rng, "gru", 3, 5), weight_dtype="float16").save(tmp_path / "file")
    replace_in_header(tmp_path / "file", old, new)
    with pytest.raises(ValueError, match=message):
        fastrnn.load(tmp_path / "file")


@pytest.mark.parametrize("name", ["null", '"float16"'])
def test_a_file_of_int8_weights_that_says_something_else(rng, tmp_path, name):
    fastrnn.GRU(random_spec(rng, "gru", 3, 5), weight_dtype="int8").save(tmp_path / "file")
    replace_in_header(tmp_path / "file", '"weight_dtype": "int8"', f'"weight_dtype": {name}')
    with pytest.raises(ValueError, match=r"weight_ih_l0 is int8, wanted float.*weight_hh_l0_scale is surplus"):
        fastrnn.load(tmp_path / "file")


def test_a_file_of_float32_with_float16_weights(rng, tmp_path):
    data = files.native(random_spec(rng, "gru", 3, 5), tmp_path)
    length = struct.unpack("<Q", data[:8])[0]
    text = data[8:].replace(b'\\"dtype\\": ', b'\\"weight_dtype\\": \\"float16\\", \\"dtype\\": ')
    (tmp_path / "file").write_bytes(struct.pack("<Q", length + len(text) - len(data) + 8) + text)
    with pytest.raises(ValueError, match="weight_ih_l0 is float32, wanted float16"):
        fastrnn.load(tmp_path / "file")


def with_arrays(path, change):
    """Rewrite a file with what `change`, called with its arrays, makes of them."""
    header, data = header_of(path), path.read_bytes()
    start = 8 + struct.unpack("<Q", data[:8])[0]
    types = {"I8": "i1", "F16": "f2", "F32": "f4", "F64": "f8"}
    arrays = {}
    for name, entry in header.items():
        if name != "__metadata__":
            a, b = entry["data_offsets"]
            arrays[name] = np.frombuffer(data[start + a : start + b], types[entry["dtype"]]).reshape(entry["shape"])
    arrays = {name: array.copy() for name, array in arrays.items()}
    change(arrays)
    path.write_bytes(files.safetensors(arrays, header["__metadata__"]))


def set_to(name, index, value):
    def change(arrays):
        arrays[name][index] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_to("weight_hh_l0", (2, 1), -128), r"weight_hh_l0\[2, 1\] is -128, wanted -127 to 127"),
        (set_to("weight_ih_l0_scale", 4, -1.0), r"weight_ih_l0_scale\[4\] is -1.0, wanted 2\*\*-126 to "),
        (set_to("weight_ih_l0_scale", 4, 0.0), r"weight_ih_l0_scale\[4\] is 0.0, wanted 2\*\*-126"),
        (set_to("weight_ih_l0_scale", 4, 1e-40), r"weight_ih_l0_scale\[4\] is .*e-41, wanted 2\*\*-126"),
        (set_to("weight_ih_l0_scale", 0, np.nan), r"weight_ih_l0_scale\[0\] is nan, wanted"),
        (set_to("weight_ih_l0_scale", 14, np.inf), r"weight_ih_l0_scale\[14\] is inf, wanted"),
        (set_to("weight_ih_l0_scale", 14, 3e38), r"weight_ih_l0_scale\[14\] is 3.0.*e\+38, wanted"),
        (set_to("weight_ih_l0_scale", 0, 0.1), r"weight_ih_l0_scale\[0\] is 0.1.*, wanted .* 17 significant bits"),
        (
            set_to("weight_hh_l0", 3, 1),
            r"largest magnitude of weight_hh_l0\[3\] is 1, wanted 127, or a scale of 2\*\*-126",
        ),
        (
            lambda arrays: arrays.pop("weight_hh_l0_scale"),
            "weight_hh_l0_scale is missing, wanted the scales of weight_hh",
        ),
        (lambda arrays: arrays.pop("weight_hh_l0"), "weight_hh_l0_scale is surplus"),
        (
            lambda arrays: arrays.update(weight_hh_l0_scale=arrays["weight_hh_l0_scale"][1:]),
            r"weight_hh_l0_scale has shape \(14,\), wanted \(15,\)",
        ),
        (
            lambda arrays: arrays.update(weight_hh_l0_scale=arrays["weight_hh_l0_scale"].astype("f8")),
            "weight_hh_l0_scale is float64, wanted float32",
        ),
        (
            lambda arrays: arrays.update(weight_hh_l0=arrays["weight_hh_l0"].ravel()),
            r"weight_hh_l0 has shape \(75,\), wanted",
        ),
        (
            lambda arrays: arrays.update(weight_hh_l0=np.pad(arrays["weight_hh_l0"], ((0, 0), (0, 1)))),
            r"weight_hh_l0 has shape \(15, 6\), wanted \(15, 5\)",
        ),
        (
            lambda arrays: arrays.update(bias_ih_l0=arrays["bias_ih_l0"].astype("i1")),
            "bias_ih_l0 is int8, wanted float",
        ),
        (lambda arrays: arrays.update(bias_ih_l0_scale=arrays["bias_ih_l0"]), "bias_ih_l0_scale is surplus"),
    ],
)
def test_hostile_files_of_int8(tmp_path, change, message):
    spec = random_spec(np.random.default_rng(0), "gru", 3, 5)
    for path, layer in (("layer", fastrnn.GRU(spec, weight_dtype="int8")), ("model", None)):
        if layer is None:
            layer, inner = fastrnn.Sequential(fastrnn.GRU(spec, weight_dtype="int8")), change

            def change(arrays, inner=inner):
                own = {name.removeprefix("0."): array for name, array in arrays.items()}
                inner(own)
                arrays.clear()
                arrays.update({f"0.{name}": array for name, array in own.items()})

        layer.save(tmp_path / path)
        assert repr(fastrnn.load(tmp_path / path)) == repr(layer)
        with_arrays(tmp_path / path, lambda arrays: None)
        assert repr(fastrnn.load(tmp_path / path)) == repr(layer)
        with_arrays(tmp_path / path, change)
        with pytest.raises(ValueError, match=message.replace("weight", r"(0\.)?weight")):
            fastrnn.load(tmp_path / path)


@every_type
def test_commands(rng, tmp_path, capsys, weight_dtype):
    (tmp_path / "in").write_bytes(files.npz(files.state_dict(random_spec(rng, "gru", 3, 16))))
    source, out = str(tmp_path / "in"), str(tmp_path / "out")
    assert cli.main(["convert", source, out, "--weight-dtype", weight_dtype]) == 0
    assert f"weight_dtype='{weight_dtype}'" in capsys.readouterr().out
    assert fingerprint(fastrnn.load(out)) == fingerprint(fastrnn.load(source).with_weight_dtype(weight_dtype))
    isa = fastrnn.load(out).isa
    for arguments in ([out], [source, "--weight-dtype", weight_dtype]):
        assert cli.main(["inspect", *arguments]) == 0
        wanted = f"runs as       GRU in float32 with weights of {weight_dtype}, backend fused, {isa}\n"
        assert wanted in capsys.readouterr().out
    assert cli.main(["inspect", source, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["layers"][0]["layer"]["computes"]["weight_dtype"] == "float32"
    (tmp_path / "x").write_text("[[1, 2, 3], [4, 5, 6]]\n")
    assert cli.main(["run", out, "--input", str(tmp_path / "x"), "--quiet"]) == 0
    x = np.array([[[1, 2, 3], [4, 5, 6]]], "f4")
    np.testing.assert_allclose(json.loads(capsys.readouterr().out), fastrnn.load(out)(x)[0][0], rtol=1e-6)
    pytest.importorskip("torch")
    for arguments in ([out], [source, "--weight-dtype", weight_dtype]):
        assert cli.main(["verify", *arguments]) == 0
        wanted = {"float16": "0.005", "int8": "0.08"}[weight_dtype]
        assert f"wanted at most {wanted}" in capsys.readouterr().out


def test_a_command_names_what_does_not_fit(tmp_path, capsys):
    arrays = files.state_dict(files.small_spec())
    arrays["weight_ih_l0"][1, 0] = 1e6
    (tmp_path / "in").write_bytes(files.npz(arrays))
    assert cli.main(["convert", str(tmp_path / "in"), str(tmp_path / "out"), "--weight-dtype", "float16"]) == 2
    assert re.search(r"weight_ih_l0\[1, 0\] is 1000000.0, out of float16's range", capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


def test_every_weight_dtype_is_in_the_lists():
    from fastrnn.commands.parsers import WEIGHT_DTYPES
    from fastrnn.spec import WEIGHT_DTYPES as wanted

    assert WEIGHT_DTYPES == wanted == tuple(_core.WEIGHT_DTYPES) == tuple(_core.WEIGHT_TYPES)
    assert cases.LAYERS
