"""Files of whole models that Keras 2 and 3 saved, loaded without Keras: its stored answers to ragged input."""

import copy
import io
import json
import re
import subprocess
import sys
import zipfile

import keras_model_cases as cases
import numpy as np
import pytest
from test_keras_file import mutate

import fastrnn
from fastrnn import cli
from fastrnn.files.keras_file import check_config
from fastrnn.importers.keras_config import read_model

GOLDEN = cases.Golden()


@pytest.fixture
def stored(tmp_path):
    """Write a stored file; gives its path and the configuration that it needs."""

    def write(name):
        path = tmp_path / name.replace("/", "-")
        path.write_bytes(GOLDEN.files[name])
        return path, config_of(name.removesuffix(".weights.h5")) if name.endswith(".weights.h5") else None

    return write


def config_of(name):
    with zipfile.ZipFile(io.BytesIO(GOLDEN.files[f"{name}.keras"])) as archive:
        return json.loads(archive.read("config.json"))


def test_there_are_all_files():
    assert len(GOLDEN.names) == 2 * (len(cases.ALL) + 2 * len(cases.IN_EVERY_FORMAT))


@pytest.mark.parametrize("name", GOLDEN.names)
def test_keras_answers(stored, name):
    path, config = stored(name)
    version, case = name.split("/")
    case = case.split(".")[0]
    cases.check(path, case, GOLDEN.answers(version, case), config)


def test_the_tests_see_other_weights(stored):
    path, config = stored("keras3/normed.weights.h5")
    dense = config["config"]["layers"][-1]["config"]
    dense["activation"] = "tanh"
    with pytest.raises(AssertionError):
        cases.check(path, "normed", GOLDEN.answers("keras3", "normed"), config)


def test_neither_keras_nor_tensorflow_is_imported(stored):
    path, _ = stored("keras3/graph-tagger.keras")
    code = (
        f"import sys, fastrnn; fastrnn.load({str(path)!r}); print(sorted({{'keras', 'tensorflow'}} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


# What is returned


@pytest.mark.parametrize("name", ["tagger", "classifier-both", "graph-average", "text", "backwards", "folded"])
def test_the_same_bits_alone_and_in_any_batch(stored, name):
    model = fastrnn.load(stored(f"keras3/{name}.keras")[0])
    alone, *others = cases.runs(model, name).values()
    for results in others:
        for ours, theirs in zip(results, alone, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_options(stored):
    path, _ = stored("keras3/tagger.keras")
    model = fastrnn.load(path, batch_first=False, isa="scalar")
    assert not model.batch_first and model.isa == "scalar" and model.num_ids == cases.IDS
    ids = np.stack(cases.rows("tagger"))
    np.testing.assert_array_equal(model(ids.T), fastrnn.load(path, isa="scalar")(ids).swapaxes(0, 1))
    with pytest.raises(ValueError, match=r"dtype given, but the file is loaded as a fastrnn.Sequential"):
        fastrnn.load(path, dtype="f4")
    layer = fastrnn.load(path, prefix="bidirectional")
    assert isinstance(layer, fastrnn.LSTM) and layer.bidirectional
    with pytest.raises(ValueError, match=r"no recurrent layer is called 'dense'.* wanted one of 'bidirectional'"):
        fastrnn.load(path, prefix="dense")


def test_a_row_without_steps_is_averaged_to_zeros(stored):
    """Where Keras divides zero by zero."""
    path, _ = stored("keras3/average.keras")
    assert np.isnan(GOLDEN.answers("keras3", "average")[3]).all()
    dense = fastrnn.load(path).spec.ops[-2]
    np.testing.assert_allclose(fastrnn.load(path)(np.zeros((2, 4), int)), [np.tanh(dense.bias)] * 2, rtol=1e-6)


def test_a_causal_model_streams(stored):
    model = fastrnn.load(stored("keras3/causal.keras")[0])
    x = cases.rows("causal")[4][None]
    stream = model.stream()
    chunks = [stream.run(x[:, start : start + 4]) for start in range(0, 12, 4)]
    np.testing.assert_array_equal(np.concatenate(chunks, axis=1), model(x))


def test_save_and_load(stored, tmp_path):
    model = fastrnn.load(stored("keras2/graph-tagger.keras")[0])
    model.save(tmp_path / "own")
    ids = np.stack(cases.rows("graph-tagger"))
    np.testing.assert_array_equal(fastrnn.load(tmp_path / "own")(ids), model(ids))


def test_inspect(stored, capsys):
    path, _ = stored("keras3/graph-average.keras")
    assert cli.main(["inspect", str(path), "--json"]) == 0
    whole, layer = json.loads(capsys.readouterr().out)["layers"]
    assert whole["loads"] and whole["choice"] == {} and whole["layer"]["class"] == "Sequential"
    assert [op["class"] for op in whole["layer"]["layers"]] == ["Embedding", "RNN", "Mean", "LayerNorm", "Linear"]
    assert layer["choice"] == {"prefix": "simple_rnn"} and layer["layer"]["class"] == "RNN"
    path, _ = stored("keras3/text.keras")
    assert cli.main(["inspect", str(path)]) == 0
    text = capsys.readouterr().out
    assert "0 recurrent layers" in text and "kernel_size 2, stride 1, dilation 2" in text


# What is refused


def made(class_name, **config):
    return {"class_name": class_name, "config": {"name": "new", **config}}


def refused(name, edit):
    """Why a stored model is refused whose list of layers was changed; the first one is the InputLayer."""
    config = config_of(name)
    edit(config["config"]["layers"])
    model = read_model(config, "3.5.0" if name.startswith("keras3") else "2.15.0")
    assert not model.faults
    return "; ".join(model.unsupported)


def insert(at, *new):
    return lambda layers: layers.__setitem__(slice(at, at), new)


def change(at, **changes):
    return lambda layers: layers[at]["config"].update(changes)


CONV = {"filters": 2, "kernel_size": [3], "activation": "linear"}


@pytest.mark.parametrize(
    ("name", "edit", "expected"),
    [
        ("tagger", insert(3, made("Conv1D", **CONV)), "Conv1D 'new' ignores the mask of 'embedding'"),
        ("tagger", insert(3, made("GlobalMaxPooling1D")), "GlobalMaxPooling1D 'new' ignores the mask of 'embedding'"),
        ("tagger", insert(3, made("Softmax")), "Softmax 'new' is called with the mask of 'embedding'"),
        ("tagger", insert(2, made("Embedding", input_dim=3, output_dim=4)), "takes ids, wanted as the first layer"),
        ("tagger", insert(2, made("Masking")), "Masking 'new' masks steps by their values"),
        ("tagger", change(2, merge_mode="sum"), "'bidirectional' has merge_mode 'sum', wanted 'concat'"),
        ("tagger", change(1, dtype="float64"), "Embedding 'embedding' computes in float64, wanted float32"),
        ("tagger", change(4, activation="gelu"), "has activation 'gelu', wanted one of elu.*softmax"),
        ("tagger", change(4, units=0), "Dense 'dense' .* is not read: units is 0, wanted 1 to"),
        ("tagger", change(0, batch_shape=[None, None, 3]), "input has 3 axes, wanted 2"),
        ("causal", change(0, batch_shape=[None, 3]), r"input has 2 axes, wanted 3 \(batch, steps, features\)"),
        ("causal", change(1, padding="same"), "has padding 'same' with strides 2"),
        (
            "causal",
            change(1, groups=3, data_format="channels_first"),
            "data_format 'channels_first'.* and has groups 3",
        ),
        ("causal", change(2, stateful=True), "LSTM 'lstm' is stateful, wanted"),
        ("causal", change(2, dtype="float64"), "LSTM 'lstm' computes in float64"),
        ("causal", change(1, padding="reflect"), "padding is 'reflect', wanted valid, same or causal"),
        ("causal", change(1, strides=[2, 2]), "strides is a list of 2, wanted an integer"),
        ("average", change(2, keepdims=True), "has keepdims"),
        ("average", change(2, data_format="channels_first"), "data_format"),
        ("backwards-last", change(2, return_sequences=True), "GRU 'gru' goes backwards with the mask of 'embedding'"),
        (
            "classifier",
            change(2, zero_output_for_mask=True),
            "'lstm' has zero_output_for_mask: it gives zeros where 'emb",
        ),
        ("normed", change(1, axis=[1]), "LayerNormalization 'layer_normalization' works on axis 1"),
        ("normed", change(1, axis=[1, 2]), "has axis a list of 2"),
        ("normed", change(1, rms_scaling=True), "has rms_scaling"),
        ("classifier", change(4, axis=[2]), "BatchNormalization 'batch_normalization' works on axis 2"),
        ("folded", change(1, renorm=True), "has renorm"),
        ("folded", change(4, max_value=6.0), "ReLU 're_lu' .* has max_value"),
        ("activations", insert(1, made("LeakyReLU")), "LeakyReLU 'new' .* has no parameter"),
        ("normed", insert(1, made("TimeDistributed", layer=made("LSTM"))), "has a layer of class 'LSTM'"),
        ("normed", insert(1, made("TimeDistributed", layer=made("mine"))), "has a layer of class 'mine'"),
        ("normed", insert(1, made("Dense") | {"module": "mine"}), "mine>Dense 'new' .* is a class of the user's"),
        ("normed", insert(1, made("Softmax") | {"module": "keras.src.ops.nn"}), "is a function and no layer"),
    ],
)
def test_what_operations_cannot_do_is_named(name, edit, expected):
    assert not refused(f"keras3/{name}", lambda layers: None)
    assert re.search(expected, refused(f"keras3/{name}", edit))


@pytest.mark.parametrize(
    ("name", "edit", "expected"),
    [
        ("tagger", change(0, batch_input_shape=[None, 5, 3]), "input has 3 axes, wanted 2"),
        ("tagger", insert(3, made("Conv1D", **CONV)), "Conv1D 'new' ignores the mask of 'embedding'"),
        ("tagger-distributed", change(5, axis=[1]), "BatchNormalization 'batch_normalization' works on axis 1"),
        ("graph-average", change(3, data_format="channels_first"), "has data_format 'channels_first'"),
        ("graph-average", change(2, go_backwards=True), "'simple_rnn' goes backwards with the mask of 'embedding'"),
    ],
)
def test_so_it_is_in_files_of_keras_2(name, edit, expected):
    assert not refused(f"keras2/{name}", lambda layers: None)
    assert re.search(expected, refused(f"keras2/{name}", edit))


@pytest.mark.parametrize(
    ("version", "name", "at", "expected"),
    [
        ("2.15.0", "tagger-distributed", 3, "GRU 'gru' takes the steps that 'embedding' masks, because in Keras 2"),
        ("2.15.0", "graph-average", 3, "GlobalAveragePooling1D .* takes the steps that 'embedding' masks"),
        (None, "average", 2, "GlobalAveragePooling1D .* in Keras 2 Identity 'new' passes on no mask$"),
        ("2.15.0", "tagger-distributed", 4, ""),  # only layers behind it that compute each step alone
        ("2.15.0", "causal", 2, ""),  # no mask
        ("3.5.0", "tagger-distributed", 3, ""),
    ],
)
def test_identity_of_keras_2_ends_the_mask(version, name, at, expected):
    config = config_of(f"keras2/{name}")
    layers = config["config"]["layers"]
    new = made("Identity", dtype="float32")
    if "inbound_nodes" in layers[at]:
        new |= {"name": "new", "inbound_nodes": layers[at]["inbound_nodes"]}
        layers[at]["inbound_nodes"] = [[["new", 0, 0, {}]]]
    layers[at:at] = [new]
    model = read_model(config, version)
    assert re.fullmatch(f".*{expected}.*" if expected else "", "; ".join(model.unsupported))
    assert "Identity" not in [layer.class_name for layer in model.chain]


def test_identity_between_recurrent_layers_of_keras_2():
    config = {"class_name": "Sequential", "config": {"name": "model", "layers": []}}
    lstm = {"units": 2, "activation": "tanh", "recurrent_activation": "sigmoid", "use_bias": True} | cases.SEQUENCES
    names = (("Masking", "mask"), ("LSTM", "lstm"), ("Identity", "identity"), ("GRU", "gru"))
    config["config"]["layers"] = layers = [made(class_name, **lstm | {"name": name}) for class_name, name in names]
    assert read_model(config, "3.5.0").unsupported == []
    assert re.match(r"GRU 'gru' takes the steps that 'mask' masks", "; ".join(read_model(config, "2.15.0").unsupported))
    del layers[0]
    assert read_model(config, "2.15.0").unsupported == []


@pytest.mark.parametrize(
    ("options", "refused"),
    [
        ({"unroll": True, "go_backwards": True, "zero_output_for_mask": True}, True),
        ({"unroll": True, "zero_output_for_mask": True}, False),
        ({"go_backwards": True, "zero_output_for_mask": True}, False),
    ],
)
def test_zeros_of_unrolled_layers(options, refused):
    """Keras's backend sets the outputs of masked steps to zero by the mask as it was given, whatever the direction."""
    lstm = {"units": 2, "activation": "tanh", "recurrent_activation": "sigmoid", "use_bias": True} | cases.SEQUENCES
    layers = [made("Masking", name="mask"), made("LSTM", **lstm | options)]
    reasons = read_model({"class_name": "Sequential", "config": {"layers": layers}}, "3.5.0").unsupported
    assert [reason.split(",")[0] for reason in reasons] == ["LSTM 'new' is unrolled"] * refused
    layers[1] = made("Bidirectional", layer=made("LSTM", **lstm | {"unroll": options.get("unroll", False)}))
    reasons = read_model({"class_name": "Sequential", "config": {"layers": layers}}, "3.5.0").unsupported
    assert len(reasons) == ("unroll" in options)


def test_directions_that_differ():
    def edit(layers):
        config = layers[2]["config"]
        config["backward_layer"] = copy.deepcopy(config["layer"])
        config["backward_layer"]["config"] |= {"units": 2, "go_backwards": True}

    assert "'bidirectional' has directions that differ" in refused("keras3/tagger", edit)


def test_all_reasons_stand_in_one_error(stored, tmp_path):
    path, config = stored("keras3/folded.weights.h5")
    layers = config["config"]["layers"]
    layers[1]["config"]["renorm"] = True
    layers[4]["config"]["max_value"] = 6
    layers[1:1] = [made("Flatten"), made("Masking", name="other")]
    with pytest.raises(NotImplementedError) as error:
        fastrnn.load(path, config=config)
    reasons = str(error.value).split("; ")
    for reason, name in zip(reasons, ("Flatten 'new' (layer 2 of 12)", "renorm", "max_value", "'other'"), strict=True):
        assert name in reason


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (lambda nodes: nodes["lstm"]["kwargs"].update(mask=None), "LSTM 'lstm' is called with another mask"),
        (lambda nodes: nodes["not_equal"]["args"].__setitem__(1, 1), "LSTM 'lstm' is called with another mask"),
        (lambda nodes: nodes["average"]["kwargs"].update(mask=None), "1D 'average' is called with another mask"),
        (lambda nodes: nodes["dense"].update(args=nodes["lstm"]["args"]), "goes into several layers"),
    ],
)
def test_masks_of_a_graph_are_those_of_the_layers(edit, expected):
    config = config_of("keras3/graph-average")
    text = json.dumps(config).replace('"simple_rnn"', '"lstm"').replace("global_average_pooling1d", "average")
    config = json.loads(text.replace('"SimpleRNN"', '"LSTM"'))
    layers = {layer["config"]["name"]: layer for layer in config["config"]["layers"]}
    layers["lstm"]["config"]["recurrent_activation"] = "sigmoid"
    assert read_model(config, "3.5.0").unsupported == []
    edit({name: layer["inbound_nodes"][0] for name, layer in layers.items() if layer["inbound_nodes"]})
    assert re.search(expected, "; ".join(read_model(config, "3.5.0").unsupported))


@pytest.mark.parametrize("version", ["keras2", "keras3"])
@pytest.mark.parametrize(
    ("name", "edit", "expected"),
    [
        ("text", change(5, units=3), r"\(kernel\) has shape \(4, 2\), wanted \(4, 3\).*\(bias\) has .* wanted \(3,\)"),
        ("text", change(1, input_dim=12), r"\(embeddings\) has shape \(11, 4\), wanted \(12, 4\)"),
        ("text", change(2, kernel_size=[2]), r"'conv1d': .* has shape \(3, 4, 3\), wanted \(2, 4, 3\)"),
        ("text", change(2, use_bias=False), "looks like use_bias=True"),
        ("folded", change(2, use_bias=True), "looks like use_bias=False"),
        ("folded", change(1, scale=False), "'batch_normalization'.*'3' too many|has 4 arrays, wanted 3: beta"),
        ("folded", change(3, center=True), r"moving_variance\) is missing|has 3 arrays, wanted 4: gamma, beta"),
        ("normed", change(3, scale=True), "is missing|has 1 arrays, wanted 2"),
        ("text", lambda layers: layers.pop(), "weights of 'dense', which the configuration lacks"),
        ("text", insert(4, made("GlobalMaxPooling1D")), "GlobalMaxPooling1D 'new' gives 'global_max_pooling1d' no"),
        ("backwards", change(1, return_sequences=False), "GRU 'gru' gives 'lstm' no sequence: wanted return_sequences"),
        ("cells", change(3, name="rnn"), "layers of the same name: 'rnn'"),
    ],
)
def test_what_does_not_fit_is_named(stored, version, name, edit, expected):
    path, config = stored(f"{version}/{name}.weights.h5")
    edit(config["config"]["layers"])
    with pytest.raises((ValueError, NotImplementedError), match=expected):
        fastrnn.load(path, config=config)


def test_layers_of_other_widths(stored):
    path, config = stored("keras3/text.weights.h5")
    del config["config"]["layers"][2]
    config["config"]["layers"].insert(2, made("Dense", units=5, activation="tanh"))
    with pytest.raises(ValueError, match=r"wanted \(4, 5\)|'conv1d_1': .* wanted \(2, 5, 4\)"):
        fastrnn.load(path, config=config)


def test_damaged_operations_leave_recurrent_layers_alone(stored):
    """A layer that a prefix chooses loads, whatever is around it."""
    path, config = stored("keras3/tagger-distributed.weights.h5")
    config["config"]["layers"][1]["config"]["input_dim"] = None
    config["config"]["layers"][4]["config"]["layer"] = 3
    assert isinstance(fastrnn.load(path, config=config, prefix="gru"), fastrnn.GRU)
    with pytest.raises(NotImplementedError, match=r"input_dim is None, .*layer is 3, wanted class_name"):
        fastrnn.load(path, config=config)


@pytest.mark.parametrize("case", ["graph-tagger", "graph-convolutions", "nested", "activations", "normed"])
@pytest.mark.parametrize("version", ["keras2", "keras3"])
def test_mutated_configurations(rng, case, version):
    config = config_of(f"{version}/{case}")
    seen = set()
    for _ in range(200):
        model = read_model(mutate(rng, config), "2.15.0" if version == "keras2" else None)
        seen.add(bool(model.faults or model.unsupported))
        for reason in (*model.faults, *model.unsupported):
            assert len(reason) < 1000
    assert seen == {True, False}
    text = json.dumps(config).encode()
    for _ in range(200):
        changed = bytearray(text)
        for place in rng.integers(0, len(text), 3):
            changed[place] = int(rng.integers(32, 127))
        try:
            check_config(bytes(changed))
        except ValueError:
            continue
