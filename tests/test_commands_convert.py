"""``fastrnn convert``: layers of any file to our own format."""

import os
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

GOLDEN = Path(__file__).parent / "golden"


def sources(tmp_path):
    """Files of several formats, each with the options that it needs."""
    spec = files.small_spec()
    (tmp_path / "named").write_bytes(files.npz(files.state_dict(spec, "a.") | files.state_dict(spec, "b.")))
    (tmp_path / "keras").write_bytes(keras_file_cases.Golden().read("keras3/both-stack.keras"))
    pytest.importorskip("torch")
    yield tmp_path / "named", {"prefix": "b"}
    yield tmp_path / "named", {"prefix": "a.", "batch_first": False, "dtype": "float64"}
    yield tmp_path / "keras", {}
    yield GOLDEN / "pytorch" / "rnn-relu.pt", {"nonlinearity": "relu"}


def flags(options):
    given = []
    for name, value in options.items():
        flag = name.replace("_", "-")
        given += [f"--{'' if value else 'no-'}{flag}"] if isinstance(value, bool) else [f"--{flag}", str(value)]
    return given


def test_the_same_layer_whatever_the_file(tmp_path, capsys):
    for path, options in sources(tmp_path):
        out = tmp_path / "out.safetensors"
        assert cli.main(["convert", str(path), str(out), "--force", *flags(options)]) == 0
        assert capsys.readouterr().out.startswith(f"{out}: ")
        wanted = fastrnn.load(path, **options)
        found = fastrnn.load(out)
        assert found._engine.fingerprint == wanted._engine.fingerprint and repr(found) == repr(wanted)


def test_a_checkpoint(tmp_path):
    pytest.importorskip("tensorflow")
    arguments = [checkpoint_cases.GRAPHS, str(tmp_path / "out"), "--scope", "basic_lstm", "--forget-bias", "0.3"]
    assert cli.main(["convert", *arguments]) == 0
    wanted = fastrnn.load(checkpoint_cases.GRAPHS, scope="basic_lstm", forget_bias=0.3)
    assert fastrnn.load(tmp_path / "out")._engine.fingerprint == wanted._engine.fingerprint


def test_what_is_there_is_replaced_with_force_alone(tmp_path, capsys):
    source, out = tmp_path / "in", tmp_path / "out"
    source.write_bytes(files.npz(files.state_dict(files.small_spec())))
    out.write_text("kept")
    assert cli.main(["convert", str(source), str(out)]) == 2
    assert capsys.readouterr() == ("", f"fastrnn: OUT {out} is there; --force replaces it\n")
    assert out.read_text() == "kept"
    assert cli.main(["convert", str(source), str(out), "--force"]) == 0
    wanted = fastrnn.load(out)._engine.fingerprint
    assert cli.main(["convert", str(out), str(out), "--force"]) == 0  # onto itself
    assert fastrnn.load(out)._engine.fingerprint == wanted and sorted(os.listdir(tmp_path)) == ["in", "out"]


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("none/out", "OUT none/out: there is no directory none"),
        ("folder", "OUT folder is a directory, wanted a file"),
        (os.devnull, f"OUT {os.devnull} is there and is no plain file"),
        ("broken", "OUT broken is there and is no plain file"),
    ],
)
def test_the_place_is_checked_before_the_file_is_read(tmp_path, monkeypatch, out, message, capsys):
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("broken").symlink_to("nowhere/at/all")
    assert cli.main(["convert", "not-there", out, "--force"]) == 2
    assert message in capsys.readouterr().err
    assert not os.path.isfile(os.devnull)


@pytest.mark.parametrize("case", ["both-sum", "masking", "backwards", "cells-unlike", "stateful"])
def test_layers_of_keras_are_refused_with_the_reason(tmp_path, case, capsys):
    path = tmp_path / "model"
    path.write_bytes(keras_file_cases.Golden().read(f"keras3/{case}.keras"))
    assert cli.main(["convert", str(path), str(tmp_path / "out")]) == 2
    err = capsys.readouterr().err
    kind = type(fastrnn.load(path)).__name__
    assert f"is loaded as a fastrnn.keras.{kind}, which fastrnn's format does not have" in err
    assert not (tmp_path / "out").exists()


def test_errors_of_load_are_a_line(tmp_path, capsys):
    (tmp_path / "in").write_bytes(files.npz({"weight_hh_l0": np.ones((8, 2), "i8"), "weight_ih_l0": np.ones((8, 2))}))
    assert cli.main(["convert", str(tmp_path / "in"), str(tmp_path / "out")]) == 2
    assert "weight_hh_l0 is int64, wanted bfloat16" in capsys.readouterr().err
    assert cli.main(["convert", str(tmp_path / "not"), str(tmp_path / "out")]) == 2
    assert "No such file" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_in_a_process(tmp_path):
    fastrnn.LSTM(cases.random_spec(np.random.default_rng(1), "lstm", 2, 3)).save(tmp_path / "in")
    command = [sys.executable, "-m", "fastrnn", "convert", str(tmp_path / "in"), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == "" and (tmp_path / "in").read_bytes() == (tmp_path / "out").read_bytes()
