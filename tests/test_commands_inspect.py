"""``fastrnn inspect``: what it says of files of every format, and of what cannot be loaded."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import cases
import checkpoint_cases
import files
import keras_file_cases
import numpy as np
import pytest

import fastrnn
from fastrnn import cli
from fastrnn.layers import LAYERS

GOLDEN = keras_file_cases.Golden()


@pytest.fixture
def inspect(capsys):
    """The document and the text of a file."""

    def run(path, *options):
        assert cli.main(["inspect", str(path), *options, "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
        assert cli.main(["inspect", str(path), *options]) == 0
        return document, capsys.readouterr().out

    return run


def arrays_of(rng):
    """A checkpoint's arrays: two layers that load, one that lacks an array, one of weight_norm, and others."""
    first = files.state_dict(cases.random_spec(rng, "lstm", 3, 4, 2, True, 2), "encoder.rnn.")
    second = files.state_dict(cases.random_spec(rng, "rnn", 4, 2, bias=False), "decoder.")
    third = files.state_dict(cases.random_spec(rng, "gru", 3, 2), "broken.")
    del third["broken.weight_ih_l0"]
    fourth = files.state_dict(cases.random_spec(rng, "gru", 3, 2), "normed.")
    fourth["normed.weight_hh_l0_g"] = np.ones((6, 1), "f4")
    return first | second | third | fourth | {"head.weight": np.ones((3, 5), "f4"), "steps": np.arange(2)}


def by_choice(document, name="prefix"):
    return {entry["choice"].get(name): entry for entry in document["layers"]}


@pytest.mark.parametrize("form", ["npz", "safetensors", "torch"])
def test_several_layers_and_what_is_wrong_with_some(tmp_path, rng, inspect, form):
    path, arrays = tmp_path / "model", arrays_of(rng)
    if form == "torch":
        torch = pytest.importorskip("torch")
        torch.save({"state_dict": {name: torch.from_numpy(array) for name, array in arrays.items()}}, path)
    else:
        path.write_bytes(getattr(files, form)(arrays))
    document, text = inspect(path)
    found = by_choice(document)
    assert list(found) == ["encoder.rnn.", "decoder.", "broken.", "normed."]
    assert [entry["loads"] for entry in document["layers"]] == [True, False, False, False]
    encoder = found["encoder.rnn."]["layer"]
    assert (encoder["class"], encoder["input_size"], encoder["hidden_size"], encoder["proj_size"]) == ("LSTM", 3, 4, 2)
    assert (encoder["num_layers"], encoder["bidirectional"], encoder["dtype"]) == (2, True, "float32")
    assert encoder["parameters"] == sum(a.size for name, a in arrays.items() if name.startswith("encoder"))
    matrices = sum(a.size for name, a in arrays.items() if name.startswith("encoder") and a.ndim == 2)
    assert encoder["flops_per_step"] == 2 * matrices
    assert [cell["name"] for cell in encoder["cells"]] == ["l0", "l0_reverse", "l1", "l1_reverse"]
    decoder = found["decoder."]
    assert decoder["needs"] == ["nonlinearity"] and decoder["layer"]["cells"][0]["activations"] is None
    assert decoder["layer"]["hidden_size"] == 2 and not decoder["layer"]["cells"][0]["bias"]
    assert "nonlinearity is missing" in decoder["reasons"][0]
    assert "weight_ih_l0" in found["broken."]["reasons"][0] and found["broken."]["layer"] is None
    assert "belongs to weight_norm" in found["normed."]["reasons"][0]
    assert document["other_arrays"]["head.weight"] == [3, 5]
    assert f"{path}: " in text and "4 recurrent layers" in text and "needs         --nonlinearity" in text
    assert "--prefix 'encoder.rnn.': LSTM of 3 inputs, 4 units, 2 outputs, 2 layers, both directions" in text
    assert "head.weight (3, 5)" in text
    for entry in document["layers"]:  # what it says is what load does
        if entry["loads"]:
            fastrnn.load(path, **entry["choice"])
        else:
            with pytest.raises((ValueError, TypeError)):
                fastrnn.load(path, **entry["choice"])


def test_options_complete_and_choose(tmp_path, rng, inspect):
    path = tmp_path / "model"
    path.write_bytes(files.npz(arrays_of(rng)))
    document, text = inspect(path, "--prefix", "decoder", "--nonlinearity", "relu", "--no-batch-first")
    (entry,) = document["layers"]
    assert entry["loads"] and entry["layer"]["cells"][0]["activations"][0][0] == "relu"
    assert entry["layer"]["batch_first"] is False and "activations relu, no bias" in text


def test_options_of_our_own_format(tmp_path, rng, inspect, isa):
    spec = cases.random_options(rng, cases.random_spec(rng, "lstm", 3, 4, 1, True, 2))
    LAYERS["lstm"](spec).save(tmp_path / "model")
    document, _ = inspect(tmp_path / "model", "--isa", isa)
    layer = document["layers"][0]["layer"]
    assert layer["computes"] == {"dtype": "float32", "weight_dtype": "float32", "backend": "fused", "isa": isa}
    for cell, wanted in zip(layer["cells"], fastrnn.load(tmp_path / "model")._unpack().cells, strict=True):
        assert cell["activations"] == [[a.name, a.alpha, a.beta] for a in wanted.activations]
        assert (cell["coupled"], cell["peephole"]) == (wanted.coupled, wanted.peephole is not None)
        assert [cell[name] for name in ("cell_clip", "gate_clip", "proj_clip")] == [
            wanted.cell_clip,
            wanted.gate_clip,
            wanted.proj_clip,
        ]
    document, _ = inspect(tmp_path / "model", "--dtype", "float64")
    computes = document["layers"][0]["layer"]["computes"]
    assert computes == {"dtype": "float64", "weight_dtype": "float64", "backend": "blas", "isa": None}


def test_a_checkpoint_without_tensorflow(inspect):
    document, text = inspect(checkpoint_cases.GRAPHS)
    found = by_choice(document, "scope")
    for graph in checkpoint_cases.LOADED:
        entries = [entry for scope, entry in found.items() if scope.split("/")[0] == graph.name]
        assert len(entries) == 1, graph.name
        assert entries[0]["needs"] == list(graph.options), graph.name
        assert entries[0]["loads"] == (not graph.options)
    assert "--scope 'lstm_projected/rnn': LSTM of 5 inputs, 9 units, 4 outputs" in text
    (reason,) = next(entry["reasons"] for scope, entry in found.items() if scope.startswith("both_multi"))
    assert "a stack of cells in each direction" in reason
    document, _ = inspect(checkpoint_cases.GRAPHS, "--scope", "lstm_projected", "--forget-bias", "0")
    assert [entry["loads"] for entry in document["layers"]] == [True]
    code = (
        f"import sys; from fastrnn import cli; cli.main(['inspect', {checkpoint_cases.GRAPHS!r}]); "
        "assert not {'tensorflow', 'torch', 'keras'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("name", [name for name in GOLDEN.names if not name.endswith(".weights.h5")])
def test_every_file_of_keras(tmp_path, inspect, name):
    path = tmp_path / "model"
    path.write_bytes(GOLDEN.read(name))
    document, text = inspect(path)
    loaded = fastrnn.load(path)
    whole = next(entry for entry in document["layers"] if not entry["choice"])
    kind = type(loaded).__name__
    is_plain = isinstance(loaded, fastrnn.LSTM | fastrnn.GRU | fastrnn.RNN)
    assert whole["layer"]["class"] == (kind if is_plain else f"fastrnn.keras.{kind}")
    if not is_plain:
        assert whole["layer"]["parameters"] == sum(array.size for array in loaded.get_weights())
    assert f"runs as       {whole['layer']['class']}" in text
    for entry in document["layers"]:
        fastrnn.load(path, **entry["choice"])


def test_a_model_of_keras_with_other_layers(tmp_path, inspect):
    """They are named, and the recurrent layers can be chosen."""
    keras = pytest.importorskip("keras")
    cell = keras.layers.GRU(3, recurrent_activation="silu", return_sequences=True, name="odd")
    layers = [keras.layers.LSTM(4, return_sequences=True, name="first"), cell, keras.layers.Dense(2, name="head")]
    model = keras.Sequential([keras.Input((None, 3)), *layers])
    model.save(tmp_path / "model.keras")
    document, text = inspect(tmp_path / "model.keras")
    found = by_choice(document)
    assert found["first"]["loads"] and found["first"]["layer"]["hidden_size"] == 4
    assert not found["odd"]["loads"] and "silu" in found["odd"]["reasons"][0]
    assert len(document["unsupported"]) == 1 and "'head'" in document["unsupported"][0]
    assert "not supported:" in text and "2 recurrent layers" in text


def test_weights_of_keras_need_their_configuration(tmp_path, inspect, capsys):
    (tmp_path / "model").write_bytes(GOLDEN.read("keras3/both-sum.weights.h5"))
    (tmp_path / "config").write_bytes(GOLDEN.read("keras3/both-sum.json"))
    assert cli.main(["inspect", str(tmp_path / "model")]) == 2
    assert "has weights and no architecture" in capsys.readouterr().err
    document, _ = inspect(tmp_path / "model", "--config", str(tmp_path / "config"))
    layer = document["layers"][0]["layer"]
    assert layer["merge_mode"] == "sum" and [part["go_backwards"] for part in layer["layers"]] == [False, True]


def names_of(value):
    """Every name in a document; `other_arrays` and `choice` have names of the file."""
    if isinstance(value, list):
        return {name for inner in value for name in names_of(inner)}
    if not isinstance(value, dict):
        return set()
    inner = {name for key, part in value.items() if key not in ("other_arrays", "choice") for name in names_of(part)}
    return set(value) | inner


def test_every_name_of_the_document_is_described(tmp_path, inspect):
    text = (Path(__file__).parents[1] / "docs" / "commands.md").read_text()
    described = set(re.findall(r"`(\w+)`", text))
    for name in ("masking", "both-sum", "stack"):
        (tmp_path / "model").write_bytes(GOLDEN.read(f"keras3/{name}.keras"))
        assert names_of(inspect(tmp_path / "model")[0]) <= described
    assert names_of(inspect(checkpoint_cases.GRAPHS)[0]) <= described


def test_nothing_found_is_an_error(tmp_path, capsys):
    keras_like = {"lstm/recurrent_kernel:0": np.ones((2, 8), "f4")}
    for data, message in [
        (files.npz({"head.weight": np.ones(3, "f4")}), "has no recurrent layer under PyTorch's names"),
        (files.npz(keras_like), "looks like Keras's names"),
        (files.npz({"weight_hh_l0": np.ones((8, 2), "f4")})[:-30], "is a damaged zip"),
        (b"", "is empty, wanted a file of PyTorch"),
        (b"\x80\x04.", "is a pickle, which can run any program"),
    ]:
        (tmp_path / "x").write_bytes(data)
        assert cli.main(["inspect", str(tmp_path / "x")]) == 2
        out, err = capsys.readouterr()
        assert out == "" and message in err and err.count("\n") == 1
    (tmp_path / "x").write_bytes(files.npz(files.state_dict(files.small_spec(), "a.")))
    assert cli.main(["inspect", str(tmp_path / "x"), "--prefix", "b"]) == 2
    assert "none under 'b', but: prefix='a.'" in capsys.readouterr().err


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs Linux")
def test_huge_arrays_take_no_memory(tmp_path):
    """Of a safetensors file the table alone is read."""
    shape = (4 * 8192, 8192)
    header, end = {}, 0
    for name in ("weight_ih_l0", "weight_hh_l0"):
        size = 4 * shape[0] * shape[1]
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    path = tmp_path / "model"
    data = files.raw_safetensors(header)
    with open(path, "wb") as file:
        file.write(data)
        file.truncate(len(data) + end)  # 2 GB that take no place on the disk
    code = (
        f"from fastrnn import cli; assert cli.main(['inspect', {str(path)!r}]) == 0; "
        "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
    )
    *text, peak = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert f"  parameters    {2 * shape[0] * shape[1]:,} in float32, {end:,} bytes" in text
    assert int(peak) < 300 << 10  # kilobytes
