"""Models whose recurrent layers keep their weights in a smaller type."""

import copy
import json
import pickle
from dataclasses import replace

import keras_model_cases
import numpy as np
import pytest
from bits import assert_same_bits
from cases import random_spec
from model_cases import LENGTHS, batch_norm, conv1d, draw, linear, pad, random_model, random_rows, text
from test_weight_dtype import every_type, header_of, rounded

import fastrnn
from fastrnn import Sequential, _core, cli
from fastrnn.layers import LAYERS
from fastrnn.models import ops
from fastrnn.models.spec import ModelSpec
from fastrnn.spec import LayerSpec


def layers_of(spec):
    return [op for op in spec.ops if isinstance(op, LayerSpec)]


def rounded_model(spec, weight_dtype="float16"):
    return replace(spec, ops=tuple(rounded(op, weight_dtype) if isinstance(op, LayerSpec) else op for op in spec.ops))


def folded_model(rng, streams=False):
    """A random spec with a recurrent layer; BatchNorm is folded before weights are rounded."""
    while not layers_of(spec := random_model(rng, streams)):
        pass
    return Sequential.from_spec(spec).spec


def fingerprint(model):
    return model._engine.fingerprint


@pytest.fixture
def tagger(rng):
    """Layers at both ends of a stage, and one in a single direction after the other."""
    return Sequential(
        ops.Embedding(draw(rng, 20, 6)),
        random_spec(rng, "lstm", 6, 33, 1, True, proj_size=5),
        random_spec(rng, "gru", 10, 17, 2),
        linear(rng, 17, 4),
        ops.LogSoftmax(),
    )


@pytest.mark.parametrize("seed", range(12))
def test_float16_has_the_bits_of_rounded_float32(isa, seed):
    rng = np.random.default_rng(seed)
    spec = folded_model(rng)
    model = Sequential.from_spec(spec, isa=isa, weight_dtype="float16")
    wanted = Sequential.from_spec(rounded_model(spec), isa=isa)
    x = pad(random_rows(rng, spec))
    assert_same_bits(model(x, lengths=LENGTHS), wanted(x, lengths=LENGTHS), text(spec))


@every_type
def test_a_model_has_the_bits_of_its_operations_alone(rng, weight_dtype):
    convolution, lstm = conv1d(rng, 3, 6, stride=1, padding="same"), random_spec(rng, "lstm", 6, 33, 2, True)
    gru, after = random_spec(rng, "gru", 66, 17), linear(rng, 17, 4)
    lengths = (3, 0, 7, 1)
    for isa in _core.available_isas("int8"):
        options = {"isa": isa, "weight_dtype": weight_dtype}
        model = Sequential(convolution, "relu", lstm, gru, after, "tanh", **options)
        rows = [rng.standard_normal((length, 3)).astype("f4") for length in lengths]
        x = Sequential(convolution, "relu", isa=isa)(rows)
        for spec in (lstm, gru):
            x, _ = LAYERS[spec.kind](spec, **options)(x)
        assert_same_bits(model(rows), Sequential(after, "tanh", isa=isa)(x), isa)


@every_type
@pytest.mark.parametrize("seed", range(6))
def test_rows_threads_and_chunks_have_the_same_bits(seed, weight_dtype):
    rng = np.random.default_rng(seed)
    spec = folded_model(rng)
    model = Sequential.from_spec(spec, weight_dtype=weight_dtype)
    rows = random_rows(rng, spec)
    x = pad(rows)
    y = model(x, lengths=LENGTHS)
    for row, wanted in zip(rows, y, strict=True):
        alone = model(row[None])[0]
        assert_same_bits(wanted if model.pools else wanted[: len(alone)], alone, text(spec))
    before = fastrnn.get_num_threads()
    try:
        _core.set_num_threads(3, 0)
        assert_same_bits(model(x, lengths=LENGTHS), y, text(spec))
    finally:
        fastrnn.set_num_threads(before)
    spec = folded_model(rng, streams=True)
    model = Sequential.from_spec(spec, weight_dtype=weight_dtype)
    s = model.stride
    x = np.stack(random_rows(rng, spec, (6 * s,) * 3))
    stream = model.stream(3)
    parts = [stream.run(part) for part in np.split(x, [s, 4 * s], axis=1)]
    assert_same_bits(np.concatenate(parts, 1), model(x), text(spec))
    other = Sequential.from_spec(spec).stream(3)
    with pytest.raises(ValueError, match="other options or weights"):
        other.restore(stream.snapshot())
    copy.deepcopy(stream).restore(stream.snapshot())


@every_type
def test_every_way_to_make_a_model(rng, tagger, tmp_path, weight_dtype):
    model = tagger.with_weight_dtype(weight_dtype)
    tagger.save(tmp_path / "wide")
    model.save(tmp_path / "small")
    parts = [op if isinstance(op, LayerSpec) else None for op in tagger.spec.ops]
    small = [
        op if part is None else LAYERS[part.kind](part, weight_dtype=weight_dtype)
        for op, part in zip(tagger.spec.ops, parts, strict=True)
    ]
    others = [
        Sequential(*tagger.spec.ops, weight_dtype=weight_dtype),
        Sequential(*small),
        Sequential(*small, weight_dtype=weight_dtype),
        Sequential(tagger, weight_dtype=weight_dtype),
        Sequential(model),
        Sequential.from_spec(tagger.spec, weight_dtype=weight_dtype),
        Sequential.from_spec(model.spec),
        fastrnn.load(tmp_path / "wide", weight_dtype=weight_dtype),
        fastrnn.load(tmp_path / "small"),
        fastrnn.load(tmp_path / "small", weight_dtype=weight_dtype),
        pickle.loads(pickle.dumps(model)),
        copy.deepcopy(model),
    ]
    assert fingerprint(model) != fingerprint(tagger) and model.nbytes < tagger.nbytes
    assert f"LSTM(6, 33, proj_size=5, bidirectional=True, weight_dtype='{weight_dtype}')" in repr(model)
    assert [op.weight_dtype for op in layers_of(model.spec)] == [weight_dtype] * 2
    for other in others:
        assert fingerprint(other) == fingerprint(model) and repr(other) == repr(model)
        assert other.nbytes == model.nbytes
    others[-2].save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "small").read_bytes()
    types = {name: entry["dtype"] for name, entry in header_of(tmp_path / "small").items() if name != "__metadata__"}
    stored = {"float16": "F16", "int8": "I8"}[weight_dtype]
    assert types["0.weight"] == types["3.weight"] == types["1.bias_ih_l0"] == "F32"
    assert types["1.weight_ih_l0_reverse"] == types["1.weight_hr_l0"] == types["2.weight_hh_l1"] == stored
    assert fingerprint(tagger.with_weight_dtype("float32")) == fingerprint(tagger)


@every_type
def test_from_torch(rng, weight_dtype):
    torch = pytest.importorskip("torch")
    module = torch.nn.Sequential(torch.nn.Embedding(7, 5), torch.nn.GRU(5, 16, 2, batch_first=True))
    model = Sequential.from_torch(module, weight_dtype=weight_dtype)
    assert fingerprint(model) == fingerprint(Sequential.from_torch(module).with_weight_dtype(weight_dtype))
    assert Sequential.from_torch(module, isa="scalar", weight_dtype=weight_dtype).isa == "scalar"


@every_type
def test_a_keras_model(tmp_path, weight_dtype):
    path = tmp_path / "model.keras"
    path.write_bytes(keras_model_cases.Golden().files["keras3/tagger.keras"])
    model, small = fastrnn.load(path), fastrnn.load(path, weight_dtype=weight_dtype)
    assert fingerprint(small) == fingerprint(model.with_weight_dtype(weight_dtype))
    ids = np.arange(12).reshape(2, 6) % model.num_ids
    difference = np.abs(small(ids) - model(ids)).max()
    assert difference == 0 if weight_dtype == "float16" else 0 < difference < 0.05  # the file's weights fit float16


@every_type
def test_some_layers_of_a_model(rng, weight_dtype):
    """Each layer has a type of its own; a BatchNorm before a small one stays."""
    gru, lstm = random_spec(rng, "gru", 5, 8), random_spec(rng, "lstm", 8, 4)
    norm = batch_norm(rng, 8)
    model = Sequential(gru, norm, replace(lstm, weight_dtype=weight_dtype), "relu")
    assert "GRU(5, 8), Scale(8), LSTM(8, 4, weight_dtype=" in repr(model)
    x = rng.standard_normal((2, 6, 5)).astype("f4")
    steps = Sequential(norm)(fastrnn.GRU(gru)(x)[0])
    y, _ = fastrnn.LSTM(lstm, weight_dtype=weight_dtype)(steps)
    np.testing.assert_array_equal(model(x), np.maximum(y, 0))
    folded = Sequential(gru, norm, lstm, weight_dtype=weight_dtype)
    assert "Scale" not in repr(folded) and repr(folded).count(weight_dtype) == 2
    with pytest.raises(
        ValueError, match=rf"ops\[2\] \(LSTM\) has weights of {weight_dtype}, wanted float32: other types are"
    ):
        model.with_weight_dtype(weight_dtype)


# What is refused


def test_refused_types(rng, tagger, tmp_path):
    plain = Sequential(linear(rng, 3, 4))
    for make in (plain.with_weight_dtype, lambda name: Sequential(linear(rng, 3, 4), weight_dtype=name)):
        with pytest.raises(ValueError, match="weight_dtype is 'int8', but the model has no recurrent layer"):
            make("int8")
    for make in (tagger.with_weight_dtype, lambda name: Sequential(tagger, weight_dtype=name)):
        with pytest.raises(ValueError, match="weight_dtype is 'half', wanted None or one of float32, float16, int8"):
            make("half")
    tagger.with_weight_dtype("int8").save(tmp_path / "model")
    with pytest.raises(ValueError) as caught:
        fastrnn.load(tmp_path / "model", weight_dtype="float16")
    assert str(caught.value).count("weight_dtype is 'float16', but the weights are int8 already") == 2
    assert str(caught.value).startswith("ops[1] (LSTM): ")
    with pytest.raises(ValueError, match=r"ops\[1\] \(LSTM\): weight_dtype is 'float32', but the weights are int8"):
        fastrnn.load(tmp_path / "model", weight_dtype="float32")


def test_weights_that_do_not_fit_are_named(rng):
    layer = random_spec(rng, "gru", 3, 4)
    layer.cells[0].weight_hh[2, 1] = 1e5
    with pytest.raises(ValueError, match=r"ops\[1\] \(GRU\): weight_hh_l0\[2, 1\] is 100000.0, out of float16's range"):
        Sequential(linear(rng, 2, 3), layer).with_weight_dtype("float16")
    layer.cells[0].weight_hh[2, 1] = np.inf
    with pytest.raises(ValueError, match=r"ops\[0\] \(GRU\): weight_hh_l0\[2, 1\] is inf, wanted finite"):
        Sequential(layer, weight_dtype="int8")


# Commands


@every_type
def test_commands(rng, tagger, tmp_path, capsys, weight_dtype):
    tagger.save(tmp_path / "in")
    source, out = str(tmp_path / "in"), str(tmp_path / "out")
    assert cli.main(["convert", source, out, "--weight-dtype", weight_dtype]) == 0
    assert fingerprint(fastrnn.load(out)) == fingerprint(tagger.with_weight_dtype(weight_dtype))
    capsys.readouterr()
    for arguments in ([out], [source, "--weight-dtype", weight_dtype]):
        assert cli.main(["inspect", *arguments]) == 0
        text = capsys.readouterr().out
        assert (
            f"runs as       Sequential in float32 with weights of {weight_dtype}, backend fused, {tagger.isa}" in text
        )
        assert text.count(f"units, 2 layers, weights of {weight_dtype}") == (arguments == [out])
    sizes = []
    for path in (source, out):
        assert cli.main(["inspect", path, "--json"]) == 0
        (entry,) = json.loads(capsys.readouterr().out)["layers"]
        assert entry["layer"]["computes"]["weight_dtype"] == ("float32" if path == source else weight_dtype)
        assert entry["layer"]["layers"][1]["weight_dtype"] == entry["layer"]["computes"]["weight_dtype"]
        sizes.append(entry["layer"]["bytes"])
    assert sizes[1] < 0.6 * sizes[0]
    (tmp_path / "x").write_text("[1, 2, 3]\n[4]\n")
    for arguments in ([out], [source, "--weight-dtype", weight_dtype]):
        assert cli.main(["run", *arguments, "--input", str(tmp_path / "x"), "--quiet"]) == 0
        found = [np.array(json.loads(line)) for line in capsys.readouterr().out.splitlines()]
        wanted = fastrnn.load(out)([np.array([1, 2, 3]), np.array([4])])
        for row, result in zip(wanted, found, strict=True):
            np.testing.assert_allclose(result, row, rtol=1e-6)
    pytest.importorskip("torch")
    assert cli.main(["verify", out]) == 0
    assert f"wanted at most { ({'float16': '0.005', 'int8': '0.08'}[weight_dtype]) }" in capsys.readouterr().out


def test_a_model_of_several_types(rng, tmp_path, capsys):
    layers = [replace(random_spec(rng, "gru", 5, 5), weight_dtype=name) for name in (None, "float16", "int8")]
    model = Sequential(*layers)
    model.save(tmp_path / "model")
    assert fingerprint(fastrnn.load(tmp_path / "model")) == fingerprint(model)
    assert cli.main(["inspect", str(tmp_path / "model")]) == 0
    text = capsys.readouterr().out
    assert "runs as       Sequential in float32, backend" in text
    assert text.count("weights of float16") == text.count("weights of int8") == 1
    assert cli.main(["inspect", str(tmp_path / "model"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["layers"][0]["layer"]["computes"]["weight_dtype"] is None


def test_a_spec_with_small_weights_is_a_spec(rng):
    layer = replace(random_spec(rng, "gru", 5, 5), weight_dtype="int8")
    assert Sequential.from_spec(ModelSpec([layer])).spec.ops[0].weight_dtype == "int8"
