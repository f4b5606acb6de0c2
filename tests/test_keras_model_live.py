"""Whole models that the installed Keras 3 and tf-keras save now, against what they compute now."""

import json
import os
import runpy
import sys
from pathlib import Path

import keras_file_cases
import keras_model_cases as cases
import numpy as np
import pytest

from fastrnn import cli

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

RANDOM, ANY = 4, 8  # models


@pytest.fixture(scope="module", params=["keras", "tf_keras"])
def library(request):
    return pytest.importorskip(request.param)


def compare(library, folder, name):
    model = cases.build(library, name)
    files = keras_file_cases.saved(model, folder)
    expected = cases.answers(model, name)
    for ending in keras_file_cases.FORMATS:
        cases.check(folder / f"model{ending}", name, expected, keras_file_cases.config_of(files, ending))


@pytest.mark.parametrize("name", cases.IN_EVERY_FORMAT)
def test_saved_now(library, tmp_path, name):
    compare(library, tmp_path, name)


def draw(monkeypatch, seed, anything=False):
    """A random model under the name "random", every other one as a functional one."""
    monkeypatch.setitem(cases.ALL, "random", cases.random_layers(np.random.default_rng(seed), anything))
    monkeypatch.setattr(cases, "FUNCTIONAL", {"random": None} if seed % 2 else {})


@pytest.mark.parametrize("seed", range(RANDOM))
def test_random_models(library, tmp_path, monkeypatch, seed):
    draw(monkeypatch, seed)
    compare(library, tmp_path, "random")


def test_any_model_is_equal_or_refused(library, tmp_path, monkeypatch):
    """With layers and options that are not read, and masks that are lost or mistaken."""
    equal = 0
    for seed in range(100, 100 + ANY):
        draw(monkeypatch, seed, anything=True)
        try:
            model = cases.build(library, "random")
            expected = cases.answers(model, "random")
        except Exception:  # Keras itself cannot run it
            continue
        model.save(tmp_path / "model.keras")
        try:
            cases.check(tmp_path / "model.keras", "random", expected)
            equal += 1
        except NotImplementedError:
            continue
    assert 0 < equal < ANY


def test_the_example_has_keras_own_answers(monkeypatch):
    """The stored model of examples/keras_tagger.py, and the stored answers."""
    keras = pytest.importorskip("keras")
    folder = Path(__file__).parents[1] / "examples"
    monkeypatch.setattr(sys, "argv", ["keras_tagger.py"])
    words = runpy.run_path(str(folder / "keras_tagger.py"))["words"]
    tagger = keras.models.load_model(folder / "keras_tagger.keras")
    longest = max(map(len, words))
    padded = np.array([row + [0] * (longest - len(row)) for row in words])
    with np.load(folder / "keras_tagger.npz") as stored:
        np.testing.assert_allclose(np.array(tagger(padded))[padded != 0], stored["answers"], atol=1e-6)


def test_verify(library, tmp_path, capsys):
    """With holes, ragged, and with a number of steps that is fixed."""
    for name in ("tagger-distributed", "text"):
        cases.build(library, name).save(tmp_path / "model.keras")
        assert cli.main(["verify", str(tmp_path / "model.keras"), "--json"]) == 0
        results = json.loads(capsys.readouterr().out)
        assert results["agrees"] and library.__name__ in results["witness"]
    layers = library.layers
    fixed = library.Sequential([library.Input((4, 2), batch_size=3), layers.GRU(3), layers.Dense(2)])
    fixed.save(tmp_path / "fixed.h5")
    assert cli.main(["verify", str(tmp_path / "fixed.h5"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["largest_difference"] < 1e-6
