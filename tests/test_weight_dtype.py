"""Layers that keep their weights in a smaller type: what they compute, where the type can be given, what is refused."""

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
from fastrnn import _core, cli
from fastrnn.spec import WEIGHTS

ISAS = _core.available_isas()


def rounded(spec):
    """The spec with every weight rounded to float16."""

    def half(array):
        return None if array is None else array.astype(np.float16).astype(np.float32)

    return replace(
        spec, cells=[replace(cell, **{part: half(getattr(cell, part)) for part in WEIGHTS}) for cell in spec.cells]
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


def test_every_way_to_make_a_layer(rng, tmp_path):
    spec = random_spec(rng, "lstm", 3, 16, 2, True)
    arrays = files.state_dict(spec)
    plain = fastrnn.LSTM.from_state_dict(arrays)
    layer = plain.with_weight_dtype("float16")
    assert layer.weight_dtype == "float16" and plain.weight_dtype == "float32"
    assert layer is not plain and fingerprint(layer) != fingerprint(plain)
    np.savez(tmp_path / "model.npz", **arrays)
    plain.save(tmp_path / "wide")
    layer.save(tmp_path / "small")
    others = [
        fastrnn.LSTM(spec, weight_dtype="float16"),
        fastrnn.LSTM(replace(spec, weight_dtype="float16")),
        fastrnn.LSTM(replace(spec, weight_dtype="float16"), weight_dtype="float16"),
        fastrnn.LSTM.from_state_dict(arrays, weight_dtype="float16"),
        fastrnn.load(tmp_path / "model.npz", weight_dtype="float16"),
        fastrnn.load(tmp_path / "wide", weight_dtype="float16"),
        fastrnn.load(tmp_path / "small"),
        fastrnn.load(tmp_path / "small", weight_dtype="float16"),
        pickle.loads(pickle.dumps(layer)),
        copy.deepcopy(layer),
    ]
    for other in others:
        assert other.weight_dtype == "float16" and fingerprint(other) == fingerprint(layer)
        assert other.nbytes == layer.nbytes < plain.nbytes
    assert fingerprint(plain.with_weight_dtype("float32")) == fingerprint(plain)


def test_from_torch(rng):
    torch = pytest.importorskip("torch")
    module = torch.nn.GRU(3, 17, 2, batch_first=True)
    layer = fastrnn.GRU.from_torch(module, weight_dtype="float16")
    assert fingerprint(layer) == fingerprint(fastrnn.GRU.from_torch(module).with_weight_dtype("float16"))
    cell = fastrnn.GRU.from_torch(torch.nn.GRUCell(3, 5).half(), weight_dtype="float16")
    assert cell.weight_dtype == "float16"  # whose weights are float16 already


def test_from_flax():
    gates = {f"i{gate}": {"kernel": np.ones((3, 2), "f4"), "bias": np.zeros(2, "f4")} for gate in "rzn"}
    params = gates | {f"h{gate}": {"kernel": np.ones((2, 2), "f4")} for gate in "rzn"}
    assert fastrnn.GRU.from_flax(params, weight_dtype="float16").weight_dtype == "float16"


def test_keras(rng, tmp_path):
    def weights(inputs):
        shapes = ((inputs, 16), (4, 16), (16,))
        return [rng.uniform(-0.5, 0.5, shape).astype("f4") for shape in shapes]

    given, x = weights(3), rng.standard_normal((2, 5, 3)).astype("f4")
    half = [array.astype("f2").astype("f4") for array in given[:2]] + given[2:]
    layer = fastrnn.keras.LSTM(4, return_sequences=True, weights=given, weight_dtype="float16")
    wanted = fastrnn.keras.LSTM(4, return_sequences=True, weights=half)
    assert_same_bits(layer(x), wanted(x))
    assert_same_bits(layer.get_weights(), given)
    assert_same_bits(pickle.loads(pickle.dumps(layer))(x), wanted(x))
    assert_same_bits(wanted.with_weight_dtype("float16")(x), wanted(x))
    for backward in (
        None,
        fastrnn.keras.LSTM(4, go_backwards=True, return_sequences=True),
    ):  # with and without the type
        both = fastrnn.keras.Bidirectional(layer, backward_layer=backward, weights=given + given)
        apart = [half, half if backward is None else given]
        assert_same_bits(both(x), fastrnn.keras.Bidirectional(wanted, weights=apart[0] + apart[1])(x))
    model = fastrnn.keras.Sequential([fastrnn.keras.Masking(0.0), wanted, fastrnn.keras.Bidirectional(wanted)])
    model.layers[-1].set_weights(weights(4) + weights(4))
    small = model.with_weight_dtype("float16")
    assert small.layers[1].weight_dtype == "float16" and 0 < np.abs(small(x) - model(x)).max() < 1e-2


def test_a_keras_file(tmp_path):
    path = tmp_path / "model.keras"
    path.write_bytes(keras_file_cases.Golden().read("keras3/both-stack.keras"))
    assert fastrnn.load(path, weight_dtype="float16").weight_dtype == "float16"


def test_nn(rng):
    weights = {"kernel": rng.uniform(-0.5, 0.5, (7, 16)).astype("f4"), "bias": np.zeros(16, "f4")}
    half = weights | {"kernel": weights["kernel"].astype("f2").astype("f4")}
    x = rng.standard_normal((2, 5, 3)).astype("f4")
    small = fastrnn.nn.rnn_cell.BasicLSTMCell(4, weights=weights, weight_dtype="float16")
    wide = fastrnn.nn.rnn_cell.LSTMCell(4, weights=half)
    assert_same_bits(*(fastrnn.nn.dynamic_rnn(cell, x, dtype="f4") for cell in (small, wide)))
    second = {"kernel": rng.uniform(-0.5, 0.5, (8, 16)).astype("f4"), "bias": np.zeros(16, "f4")}
    stack = [
        fastrnn.nn.rnn_cell.MultiRNNCell([cell, fastrnn.nn.rnn_cell.LSTMCell(4, weights=second)])
        for cell in (small, wide)
    ]
    assert_same_bits(*(fastrnn.nn.dynamic_rnn(cell, x, dtype="f4") for cell in stack))
    with pytest.raises(ValueError, match="weight_dtype is 'float16' and dtype float64"):
        fastrnn.nn.rnn_cell.LSTMCell(4, weights=weights, dtype="f8", weight_dtype="float16")


def test_what_a_layer_says(rng):
    layer = fastrnn.LSTM(random_spec(rng, "lstm", 128, 128), weight_dtype="float16")
    assert repr(layer).endswith("dtype=float32, weight_dtype='float16')")
    assert 0.5 < layer.nbytes / fastrnn.LSTM(random_spec(rng, "lstm", 128, 128)).nbytes < 0.505
    assert fastrnn.LSTM(random_spec(rng, "lstm", 2, 2, dtype=np.float64)).weight_dtype == "float64"


def test_snapshots_fit_the_same_weights_alone(rng):
    spec = rounded(random_spec(rng, "gru", 3, 5))
    small, wide = (fastrnn.GRU(spec, weight_dtype=name) for name in ("float16", "float32"))
    stream = small.stream(2)
    stream.step(np.ones((2, 3), "f4"))
    fastrnn.GRU(spec, weight_dtype="float16").stream(2).restore(stream.snapshot())
    with pytest.raises(ValueError, match="of a layer with other options or weights"):
        wide.stream(2).restore(stream.snapshot())


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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight_dtype": "half"}, "weight_dtype is 'half', wanted None or one of float32, float16, int8"),
        ({"weight_dtype": ["float16"]}, r"weight_dtype is \['float16'\], wanted None or one of"),
        ({"weight_dtype": np.float16}, "weight_dtype is <class 'numpy.float16'>, wanted None or one of"),
        ({"weight_dtype": "float16", "backend": "blas"}, "weight_dtype is 'float16' and backend 'blas', wanted"),
        ({"weight_dtype": "float16", "dtype": "float64"}, "weight_dtype is 'float16' and dtype float64, wanted"),
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


def test_other_types_are_made_from_float32_only(rng):
    spec = random_spec(rng, "rnn", 2, 3)
    small = fastrnn.RNN(spec, weight_dtype="float16")
    for name in ("float32", "float16", "int8"):
        with pytest.raises(ValueError, match="the layer's weights are float16, wanted float32"):
            small.with_weight_dtype(name)
    with pytest.raises(ValueError, match="the layer's weights are float64, wanted float32"):
        fastrnn.RNN(spec, dtype="float64").with_weight_dtype("float16")
    with pytest.raises(ValueError, match="backend 'blas'"):
        fastrnn.RNN(spec, backend="blas").with_weight_dtype("float16")
    with pytest.raises(ValueError, match="weight_dtype is 'int8', but the weights are float16 already"):
        fastrnn.RNN(replace(spec, weight_dtype="float16"), weight_dtype="int8")


def test_without_vector_kernels_smaller_weights_are_fused(rng, monkeypatch):
    monkeypatch.setattr(_core, "available_isas", lambda: ["scalar"])
    spec = random_spec(rng, "rnn", 2, 3)
    assert fastrnn.RNN(spec).backend == "blas" and fastrnn.RNN(spec, weight_dtype="float16").backend == "fused"


# Files and commands


def header_of(path):
    data = path.read_bytes()
    return json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])


def test_a_file_holds_float16(rng, tmp_path):
    spec = random_spec(rng, "lstm", 3, 5, 2, proj_size=2, peephole=True)
    layer = fastrnn.LSTM(spec, weight_dtype="float16")
    layer.save(tmp_path / "small")
    fastrnn.LSTM(spec).save(tmp_path / "wide")
    header = header_of(tmp_path / "small")
    types = {name: entry["dtype"] for name, entry in header.items() if name != "__metadata__"}
    assert types == {name: "F16" if name.startswith("weight") else "F32" for name in types} and len(types) == 12
    assert json.loads(header["__metadata__"]["config"])["weight_dtype"] == "float16"
    assert "weight_dtype" not in header_of(tmp_path / "wide")["__metadata__"]["config"]
    fastrnn.load(tmp_path / "small").save(tmp_path / "again")
    assert (tmp_path / "small").read_bytes() == (tmp_path / "again").read_bytes()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"float16"', '"float61"', "weight_dtype is 'float61', wanted float16"),
        ('"float16"', '["f16", 1]', "weight_dtype is .*, wanted float16"),
        (
            '"dtype": "float32"',
            '"dtype": "float64"',
            "weight_dtype is 'float16', wanted float16 or int8, of dtype float32",
        ),
        ('"weight_dtype": "float16"', '"weight_dtype": null', "weight_hh_l0 is float16, wanted float32"),
    ],
)
def test_a_file_whose_type_does_not_fit(rng, tmp_path, old, new, message):
    fastrnn.GRU(random_spec(rng, "gru", 3, 5), weight_dtype="float16").save(tmp_path / "file")
    old, new = (json.dumps(text)[1:-1].encode() for text in (old, new))
    data = (tmp_path / "file").read_bytes()
    assert data.count(old) == 1
    length = struct.unpack("<Q", data[:8])[0] + len(new) - len(old)
    (tmp_path / "file").write_bytes(struct.pack("<Q", length) + data[8:].replace(old, new))
    with pytest.raises(ValueError, match=message):
        fastrnn.load(tmp_path / "file")


def test_a_file_of_float32_with_float16_weights(rng, tmp_path):
    data = files.native(random_spec(rng, "gru", 3, 5), tmp_path)
    length = struct.unpack("<Q", data[:8])[0]
    text = data[8:].replace(b'\\"dtype\\": ', b'\\"weight_dtype\\": \\"float16\\", \\"dtype\\": ')
    (tmp_path / "file").write_bytes(struct.pack("<Q", length + len(text) - len(data) + 8) + text)
    with pytest.raises(ValueError, match="weight_ih_l0 is float32, wanted float16"):
        fastrnn.load(tmp_path / "file")


def test_commands(rng, tmp_path, capsys):
    (tmp_path / "in").write_bytes(files.npz(files.state_dict(random_spec(rng, "gru", 3, 16))))
    source, out = str(tmp_path / "in"), str(tmp_path / "out")
    assert cli.main(["convert", source, out, "--weight-dtype", "float16"]) == 0
    assert "weight_dtype='float16'" in capsys.readouterr().out
    assert fingerprint(fastrnn.load(out)) == fingerprint(fastrnn.load(source).with_weight_dtype("float16"))
    for arguments in ([out], [source, "--weight-dtype", "float16"]):
        assert cli.main(["inspect", *arguments]) == 0
        assert "runs as       GRU in float32 with weights of float16, backend fused" in capsys.readouterr().out
    assert cli.main(["inspect", source, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["layers"][0]["layer"]["computes"]["weight_dtype"] == "float32"
    pytest.importorskip("torch")
    for arguments in ([out], [source, "--weight-dtype", "float16"]):
        assert cli.main(["verify", *arguments]) == 0
        assert "wanted at most 0.005" in capsys.readouterr().out


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

    assert WEIGHT_DTYPES == wanted == tuple(_core.WEIGHT_DTYPES)
    assert cases.LAYERS
