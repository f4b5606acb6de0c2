"""The examples run from a clone and print the expected results."""

import importlib.util
import os
import re
import runpy
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
needs_silero = pytest.mark.skipif(importlib.util.find_spec("silero_vad") is None, reason="needs the package silero_vad")
needs_keras = pytest.mark.skipif(
    None in map(importlib.util.find_spec, ("keras", "tensorflow")), reason="needs Keras and TensorFlow"
)
needs_model = pytest.mark.skipif(importlib.util.find_spec("g2p_en") is None, reason="needs the package g2p_en")


def run(name, *arguments, logs=False):
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, str(ROOT / "examples" / f"{name}.py"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": paths}, check=False)
    assert done.returncode == 0 and (logs or not done.stderr), done.stderr
    return done.stdout


def percentages(text):
    return [float(number) for number in re.findall(r"([\d.]+)%", text)]


def test_one_to_one():
    assert run("one_to_one").split("\n")[:4] == ["0 xor 0 = 0", "0 xor 1 = 1", "1 xor 0 = 1", "1 xor 1 = 0"]


@pytest.mark.slow
def test_one_to_many():
    printed = run("one_to_many")
    assert re.search(r"^a (small|big) (square|cross|line)( and a (small|big) (square|cross|line))?$", printed, re.M)
    assert percentages(printed)[0] > 90 and re.search(r"of [23]\d\d new captions are right", printed)


def test_many_to_one():
    printed = run("many_to_one")
    shown = re.findall(
        r"^(\d+)\n  (\d+) steps of a (?:sine|square|sawtooth) +->  (?:sine|square|sawtooth)$", printed, re.M
    )
    assert len(shown) == 6 and all(len(levels) == int(steps) for levels, steps in shown)
    right, guessing = percentages(printed)
    assert guessing == 33 and right > 80


@pytest.mark.slow
def test_many_to_many_in_step():
    printed = run("many_to_many_in_step")
    right, pairs = percentages(printed)
    assert right > 1.5 * pairs > 30
    assert len(re.findall(r"^licensed under the \|\w+", printed, re.M)) == 3


def test_mnist_classifier():
    printed = run("mnist_classifier")
    right = percentages(printed)
    assert len(right) == 3 and min(right) >= 95
    assert re.search(r"^ +#+", printed, re.M) and re.search(r"^is a \d$", printed, re.M)
    assert "static_rnn and dynamic_rnn differ by 0\n" in printed


def test_mnist_classifier_gives_pytorchs_logits():
    """The predictions for the images in tests/data, stored when the weights were trained."""
    example = runpy.run_path(str(ROOT / "examples" / "mnist_classifier.py"))
    with np.load(ROOT / "tests" / "data" / "mnist.npz") as sample:
        x, rows = example["as_input"](sample["images"]), example["count_rows"](sample["images"])
        for logits in (example["classify_static"](x), example["classify_dynamic"](x)):
            np.testing.assert_allclose(logits, sample["logits_full"], atol=1e-4)
        np.testing.assert_allclose(example["classify_dynamic"](x, rows), sample["logits_ragged"], atol=1e-4)


@needs_model
def test_many_to_many_after_end():
    lines = run("many_to_many_after_end").splitlines()
    assert lines[0].split() == ["hello", "HH", "EH1", "L", "OW0"]
    assert lines[4].split()[1:] == ["AE2", "K", "T", "IH0", "V", "EY1", "SH", "AH0", "N", "IH0", "S", "T"]
    steps, padded = map(int, re.findall(r"\d+", lines[5]))
    assert steps < padded == 5 * 13


@pytest.mark.skipif(importlib.util.find_spec("g2pM") is None, reason="needs the package g2pM")
def test_chinese_to_pinyin():
    lines = run("chinese_to_pinyin").splitlines()
    assert lines[0].startswith("yin2 hang2 xing2 zhang3 zai4 xing2 zou3 ")
    assert lines[1].startswith("ran2 er2 \uff0c ta1 hong2 le5 2 0 nian2") and len(lines) == 4
    assert all(line.endswith("(as g2pM's own)") for line in lines[:3])
    assert lines[3] == "the network's answers to 37 characters, of which 0 are unlike g2pM's own"


def check_tagger(lines):
    pairs = [pair.split("/") for line in lines[:6] for pair in line.split()]
    assert {"DET", "ADJ", "NOUN", "VERB", "END"} <= {tag for _, tag in pairs}
    tags_of = {word: {tag for other, tag in pairs if other == word} for word, _ in pairs}
    assert max(map(len, tags_of.values())) > 1  # a word's tag depends on its neighbours
    assert percentages(lines[6])[0] > 95 and lines[7].endswith("of the 960 that Keras computes with padding")
    assert 0 < float(lines[8].split()[-1]) < 1e-5


def test_keras_tagger():
    check_tagger(run("keras_tagger").splitlines())


@pytest.mark.slow
@needs_keras
def test_keras_tagger_trained_now(tmp_path):
    check_tagger(run("keras_tagger", "--train", tmp_path, logs=True).splitlines())


@needs_silero
def test_speech_in_sound():
    lines = run("speech_in_sound").splitlines()
    assert len(lines) >= 4 and re.fullmatch(r" +0\.0 s +[.#]{31}", lines[0])
    assert not any("#" in line for line in lines)
    assert float(lines[-1].split()[-1]) < 1e-5


@needs_silero
def test_speech_activity(tmp_path):
    """On a sound that is cut inside a frame; the picture is drawn."""
    noise = np.random.default_rng(0).integers(-300, 300, 20000)
    with wave.open(str(tmp_path / "sound.wav"), "wb") as sound:
        sound.setparams((1, 2, 16000, 0, "NONE", None))
        sound.writeframes(noise.astype("<i2").tobytes())
    lines = run("speech_activity", tmp_path / "sound.wav", tmp_path / "activity.png").splitlines()
    assert [line.split()[:2] for line in lines[:3]] == [["onnxruntime", "20"], ["fastrnn", "1"], ["onnxruntime", "6"]]
    assert lines[-3].startswith("40 probabilities, mean 0.0")
    assert all(float(line.split()[-1]) < 1e-5 for line in lines[-2:])
    assert (tmp_path / "activity.png").stat().st_size > 5000


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("metapredict") is None, reason="needs the package metapredict")
def test_protein_disorder():
    lines = run("protein_disorder").splitlines()
    assert lines[0] == "393 residues, 48% disordered" and len(lines) == 1 + 2 * 5 + 1 + 2 + 1
    assert lines[2].strip() == "#" * 80 and lines[6].strip() == "." * 80
    assert 0 < float(lines[-1].split()[-1]) < 1e-5
