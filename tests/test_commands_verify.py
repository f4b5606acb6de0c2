"""``fastrnn verify``: it agrees with the frameworks, sees errors, and says what is missing."""

import importlib.util
import json
from pathlib import Path

import cases
import checkpoint_cases
import files
import keras_file_cases
import numpy as np
import pytest

from fastrnn import cli, extras
from fastrnn.commands import verify
from fastrnn.layers import LAYERS

GOLDEN = Path(__file__).parent / "golden"
needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs torch")


@pytest.fixture
def run(capsys):
    """The exit code and the document."""

    def verify(path, *options):
        code = cli.main(["verify", str(path), *map(str, options), "--json"])
        out, err = capsys.readouterr()
        return code, json.loads(out) if code < 2 else err

    return verify


@needs_torch
@pytest.mark.parametrize("name", sorted(path.stem for path in (GOLDEN / "pytorch").glob("*.pt")))
def test_files_of_pytorch(run, name):
    options = ["--nonlinearity", name.split("-")[1].replace("cell", "tanh")] if name.startswith("rnn") else []
    code, document = run(GOLDEN / "pytorch" / f"{name}.pt", *options)
    assert code == 0 and document["agrees"] and document["witness"].startswith("torch ")
    assert set(document["parts"]) >= {"y", "h"} and max(document["parts"].values()) == document["largest_difference"]
    assert document["tolerance"] == (1e-10 if name == "float64" else 1e-5)


@needs_torch
@pytest.mark.parametrize("form", ["npz", "safetensors"])
@pytest.mark.parametrize("sizes", [("lstm", 3, 4, 2, True, 2), ("gru", 3, 4, 2, True), ("lstm", 1, 1)])
def test_named_arrays_of_other_files(run, tmp_path, rng, form, sizes):
    spec = cases.random_spec(rng, *sizes)
    data = getattr(files, form)(files.state_dict(spec, "a.") | files.state_dict(spec, "b."))
    (tmp_path / "x").write_bytes(data)
    code, document = run(tmp_path / "x", "--prefix", "b", "--no-batch-first", "--seed", 3)
    assert code == 0 and document["agrees"]


@needs_torch
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("reverse", [False, True])
def test_our_own_format(run, tmp_path, rng, reverse, dtype):
    from dataclasses import replace

    spec = replace(cases.random_spec(rng, "gru", 3, 4, 2, dtype=dtype), reverse=reverse)
    LAYERS["gru"](spec).save(tmp_path / "x")
    assert run(tmp_path / "x")[0] == 0


@needs_torch
def test_options_that_pytorch_lacks_are_named(run, tmp_path, rng):
    spec = cases.random_spec(rng, "lstm", 3, 4, peephole=True, cell_clip=0.5, coupled=True)
    LAYERS["lstm"](spec).save(tmp_path / "x")
    code, err = run(tmp_path / "x")
    assert code == 2 and "PyTorch has no layer with peepholes, cell_clip, coupled gates, so there is nothing" in err


@needs_torch
def test_an_importer_that_is_wrong_is_seen(run, monkeypatch):
    """Two gates exchanged: the module reads the file by itself, so the results differ."""
    from fastrnn.files import state_dict

    original = state_dict.spec_from_state_dict

    def exchanged(kind, arrays, **options):
        arrays = {
            name: np.concatenate([array[4:8], array[:4], array[8:]]) if name.startswith("weight") else array
            for name, array in arrays.items()
        }
        return original(kind, arrays, **options)

    monkeypatch.setattr(state_dict, "spec_from_state_dict", exchanged)
    code, document = run(GOLDEN / "pytorch" / "lstm-cell.pt")
    assert code == 1 and not document["agrees"] and document["largest_difference"] > 1e-3
    where = document["where"]
    assert {"part", "row", "direction", "unit"} < set(where) and len(where) == 5
    assert abs(document["here"] - document["there"]) > 1e-3


@needs_torch
def test_the_rounding_of_pytorch_itself_is_allowed_for(run, monkeypatch, capsys):
    """In deep layers with large weights it exceeds the tolerance; a smaller tolerance shows it for any weights."""
    monkeypatch.setitem(verify.TOLERANCES, "float32", 1e-9)
    path = GOLDEN / "pytorch" / "lstm.pt"
    code, document = run(path)
    assert code == 0 and 1e-9 < document["largest_difference"] <= document["tolerance"] < 1e-5
    assert document["tolerance"] == 4 * document["rounding"]
    assert cli.main(["verify", str(path)]) == 0
    assert "rounding            its float32 differs by" in capsys.readouterr().out
    code, document = run(path, "--tolerance", 1e-9)
    assert code == 1 and document["tolerance"] == 1e-9
    original = verify._plain_parts

    def changed(layer, here, there, lengths):
        """Our y is wrong in the fourth digit."""
        y = here[0] + np.float32(1e-4) if there[0].dtype == np.float32 else here[0]
        return original(layer, (y, *here[1:]), there, lengths)

    monkeypatch.setattr(verify, "_plain_parts", changed)
    assert run(path)[0] == 1


@needs_torch
def test_the_place_of_a_difference(monkeypatch, capsys):
    """One number changed in the results is found where it is."""
    original = verify._plain_parts

    def changed(layer, here, there, lengths):
        y, *rest = there
        y = np.array(y)
        y[5, 11, 6] += 0.25
        y[0, 17, 0] = 9  # past the row's end, which does not count
        return original(layer, here, (y, *rest), lengths)

    monkeypatch.setattr(verify, "_plain_parts", changed)
    assert cli.main(["verify", str(GOLDEN / "pytorch" / "lstm.pt")]) == 1
    out = capsys.readouterr().out
    assert "0.25 in y, row 5, step 11, direction 1, unit 2: " in out and "THEY DIFFER" in out
    assert cli.main(["verify", str(GOLDEN / "pytorch" / "lstm.pt"), "--tolerance", "0.3"]) == 0
    assert "they agree" in capsys.readouterr().out


def test_numbers_that_are_none_differ():
    nan, one = np.full((1, 1), np.nan), np.ones((1, 1))
    assert verify.Part("y", nan, one, ("row", "unit")).difference()[0] == np.inf
    assert verify.Part("y", one, nan, ("row", "unit")).difference()[0] == np.inf
    assert verify.Part("y", nan, nan, ("row", "unit")).difference()[0] == 0
    assert verify.Part("y", one, np.ones((1, 2)), ("row", "unit")).difference()[0] == np.inf
    assert verify.Part("y", one * np.inf, one * np.inf, ("row", "unit")).difference()[0] == 0


KERAS = ["lstm", "gru-float64", "both-sum", "masking", "stateful", "cells-unlike", "backwards-last"]


@pytest.mark.slow
@pytest.mark.parametrize("name", KERAS)
@pytest.mark.parametrize("version", ["keras2", "keras3"])
def test_files_of_keras(run, tmp_path, version, name):
    pytest.importorskip("tf_keras" if version == "keras2" else "keras")
    golden = keras_file_cases.Golden()
    (tmp_path / "config.json").write_bytes(golden.read(f"{version}/{name}.json"))
    for ending, options in ((".keras", []), (".h5", []), (".weights.h5", ["--config", tmp_path / "config.json"])):
        (tmp_path / "x").write_bytes(golden.read(f"{version}/{name}{ending}"))
        code, document = run(tmp_path / "x", *options)
        assert code == 0 and document["agrees"], document
        assert document["witness"].split()[0] == {"keras2": "tf_keras", "keras3": "keras"}[version]
        assert any("gaps" in part for part in document["parts"])


@pytest.mark.slow
def test_a_gru_of_keras_from_before_it_had_reset_after(run, tmp_path):
    keras, h5py = pytest.importorskip("tf_keras"), pytest.importorskip("h5py")
    gru = keras.layers.GRU(4, reset_after=False, recurrent_activation="hard_sigmoid", return_sequences=True, name="gru")
    model = keras.Sequential(
        [keras.Input((None, 3)), keras.layers.Bidirectional(gru, name="both"), keras.layers.Dense(2)]
    )
    model.save(tmp_path / "x.h5")
    with h5py.File(tmp_path / "x.h5", "r+") as file:
        text = file.attrs["model_config"]
        assert '"reset_after": false' in text
        file.attrs["model_config"] = text.replace(', "reset_after": false', "")
    for options in ((), ("--prefix", "both")):
        code, document = run(tmp_path / "x.h5", *options)
        assert code == 0 and document["agrees"], document


@pytest.mark.slow
def test_a_layer_of_keras_by_its_name_from_a_state(run, tmp_path):
    keras = pytest.importorskip("keras")
    both = keras.layers.Bidirectional(keras.layers.LSTM(4), merge_mode="sum", name="both")
    first = keras.layers.GRU(3, return_sequences=True, return_state=False, name="first")
    model = keras.Sequential([keras.Input((None, 3)), first, both, keras.layers.Dense(2)])
    model.save(tmp_path / "x.keras")
    for name in ("first", "both"):
        code, document = run(tmp_path / "x.keras", "--prefix", name)
        assert code == 0 and document["agrees"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lstm_projected", "stack", "cudnn_gru", "rnn_relu", "gru_both", "lstm_float64"])
def test_checkpoints(run, name):
    pytest.importorskip("tensorflow")
    graph = checkpoint_cases.BY_NAME[name]
    options = [text for key, value in graph.options.items() for text in (f"--{key.replace('_', '-')}", value)]
    code, document = run(checkpoint_cases.GRAPHS, "--scope", name, *options)
    assert code == 0 and document["agrees"]
    assert document["witness"].split()[0] == ("torch" if name == "cudnn_gru" else "tensorflow")


def test_a_missing_framework_is_an_exit_code_and_an_extra(run, tmp_path, monkeypatch, rng):
    LAYERS["gru"](cases.random_spec(rng, "gru", 3, 4)).save(tmp_path / "x")
    (tmp_path / "k").write_bytes(keras_file_cases.Golden().read("keras3/lstm.keras"))
    original = extras.missing
    monkeypatch.setattr(extras, "missing", lambda modules: [m for m in modules if m not in ("h5py", "tqdm")])
    for path, package, extra in ((tmp_path / "x", "torch", "torch"), (tmp_path / "k", "keras", "verify")):
        code, err = run(path)
        assert code == 2 and f"verify needs the package {package}, not installed (extra '{extra}': " in err
    assert original(["numpy"]) == []


@pytest.mark.parametrize("value", ["0", "-1", "x"])
def test_tolerance_is_a_positive_number(value, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["verify", "x", "--tolerance", value])
    assert stop.value.code == 2 and "--tolerance" in capsys.readouterr().err


def test_errors_of_load_are_a_line(run, tmp_path):
    (tmp_path / "x").write_bytes(b"nothing")
    code, err = run(tmp_path / "x")
    assert code == 2 and "begins with b'nothing', wanted a file of PyTorch" in err and err.count("\n") == 1
