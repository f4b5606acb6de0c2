"""Whole models that Keras saves, the way to run them there, and what our loaded models have to agree with."""

from __future__ import annotations

import tarfile
import zlib
from pathlib import Path
from typing import Any

import keras_cases
import numpy as np

import fastrnn

FILE = Path(__file__).parent / "golden" / "keras_models.tar.xz"
IDS = 11

#: Unsorted, with ties and ones; long enough for every convolution.
LENGTHS = (7, 5, 9, 5, 12, 6)

#: 0: masked. Holes, right and left padding, a row without steps, a full row.
MASKED = ("1011010", "1110000", "0011111", "0000000", "1111111", "0000010")

SEQUENCES = {"return_sequences": True}
WORDS = ("Embedding", (IDS, 4), {"mask_zero": True})

#: name -> layers: (class, arguments, options); options may hold layers, too.
CASES: dict[str, list[Any]] = {
    "tagger": [
        WORDS,
        ("Bidirectional", ("LSTM", 3, SEQUENCES), {}),
        ("Dropout", 0.5, {}),
        ("Dense", 5, {"activation": "softmax"}),
    ],
    "tagger-distributed": [
        WORDS,
        ("SpatialDropout1D", 0.5, {}),
        ("GRU", 3, SEQUENCES),
        ("TimeDistributed", ("Dense", 4, {"activation": "relu"}), {}),
        ("BatchNormalization", (), {}),
        ("TimeDistributed", ("Dropout", 0.5, {}), {}),
        ("LayerNormalization", (), {"epsilon": 0.01}),
        ("TimeDistributed", ("Dense", 3, {"activation": "softmax", "use_bias": False}), {}),
    ],
    "classifier": [
        WORDS,
        ("LSTM", 5, {"recurrent_activation": "hard_sigmoid"}),
        ("Dense", 4, {"activation": "relu"}),
        ("BatchNormalization", (), {}),
        ("Dense", 1, {"activation": "sigmoid"}),
    ],
    "classifier-both": [
        WORDS,
        ("Bidirectional", ("GRU", 3, {"reset_after": False}), {}),
        ("Dense", 3, {}),
        ("Softmax", (), {}),
    ],
    "average": [WORDS, ("GlobalAveragePooling1D", (), {}), ("Dense", 2, {"activation": "tanh"})],
    "average-rnn": [
        WORDS,
        ("SimpleRNN", 4, SEQUENCES),
        ("GlobalAveragePooling1D", (), {}),
        ("LayerNormalization", (), {}),
        ("Dense", 2, {}),
    ],
    "backwards-last": [WORDS, ("GRU", 4, {"go_backwards": True}), ("Dense", 2, {})],
    "cells": [WORDS, ("RNN", [("LSTMCell", 4, {}), ("GRUCell", 3, {})], SEQUENCES), ("Dense", 2, {})],
    "text": [
        ("Embedding", (IDS, 4), {}),
        ("Conv1D", (3, 3), {"padding": "same", "activation": "relu"}),
        ("Conv1D", (4, 2), {"dilation_rate": 2}),
        ("GlobalMaxPooling1D", (), {}),
        ("Dense", 2, {"activation": "softmax"}),
    ],
    "causal": [
        ("Conv1D", (4, 3), {"padding": "causal", "strides": 2, "activation": "elu"}),
        ("LSTM", 3, SEQUENCES),
        ("Dense", 2, {"use_bias": False}),
    ],
    "even-kernels": [
        ("Conv1D", (4, 4), {"padding": "same"}),
        ("Conv1D", (3, 2), {"padding": "same", "dilation_rate": 3}),
        ("GRU", 3, {}),
        ("Dense", 2, {}),
    ],
    "folded": [
        ("BatchNormalization", (), {}),
        ("Conv1D", (4, 3), {"use_bias": False, "strides": 2}),
        ("BatchNormalization", (), {"center": False}),
        ("ReLU", (), {}),
        ("BatchNormalization", (), {"scale": False}),
        ("Conv1D", (3, 2), {"padding": "same"}),
        ("GlobalAveragePooling1D", (), {}),
        ("BatchNormalization", (), {"scale": False, "center": False, "epsilon": 0.1}),
        ("Dense", 2, {}),
    ],
    "backwards": [
        ("GRU", 4, {"go_backwards": True, "return_sequences": True}),
        ("Dense", 3, {"activation": "tanh"}),
        ("LSTM", 4, {"go_backwards": True, "return_sequences": True}),
        ("Dense", 2, {}),
    ],
    "activations": [
        ("Dense", 4, {"activation": "softplus"}),
        ("ELU", 0.7, {}),
        ("Dense", 4, {"activation": "hard_sigmoid"}),
        ("Dense", 4, {"activation": "linear"}),
        ("LeakyReLU", 0.3, {}),
        ("GaussianNoise", 0.1, {}),
        ("Dense", 4, {"activation": "softsign"}),
        ("Activation", "sigmoid", {}),
        ("SimpleRNN", 3, SEQUENCES),
        ("ReLU", (), {}),
        ("Activation", "softmax", {}),
    ],
    "normed": [
        ("LayerNormalization", (), {"center": False}),
        ("LSTM", 4, SEQUENCES),
        ("LayerNormalization", (), {"scale": False}),
        ("TimeDistributed", ("BatchNormalization", (), {}), {}),
        ("TimeDistributed", ("LayerNormalization", (), {}), {}),
        ("TimeDistributed", ("Activation", "tanh", {}), {}),
        ("Bidirectional", ("SimpleRNN", 2, {"activation": "relu"}), {}),
        ("Dense", 2, {}),
    ],
}

#: Functional models: name -> as above.
FUNCTIONAL: dict[str, list[Any]] = {
    "graph-tagger": CASES["tagger-distributed"],
    "graph-average": CASES["average-rnn"],
    "graph-convolutions": CASES["folded"],
}

#: Models inside a Sequential: (class, layers, options).
NESTED: dict[str, list[Any]] = {
    "nested": [
        WORDS,
        ("Sequential", [("LSTM", 3, SEQUENCES), ("Dense", 4, {}), ("LayerNormalization", (), {})], {"name": "inner"}),
        ("Dense", 3, {"name": "inner2"}),
    ]
}

ALL = CASES | FUNCTIONAL | NESTED

#: Cases that are stored as .h5 and .weights.h5, too, and saved anew where Keras is installed.
IN_EVERY_FORMAT = ("tagger-distributed", "cells", "text", "folded", "backwards", "normed", "graph-average", "nested")


def random_layers(rng: np.random.Generator, anything: bool = False) -> list[Any]:
    """A chain of layers with random options; all of them are read, unless `anything` is possible."""
    masked, ids = bool(rng.random() < 0.5), bool(rng.random() < 0.5)
    masked = masked and ids

    def pick(*values: Any) -> Any:
        return values[rng.integers(len(values))]

    def rarely() -> bool:
        return anything and bool(rng.random() < 0.15)

    def activation() -> str:
        return str(
            pick("linear", "tanh", "relu", "sigmoid", "softmax", "elu", "hard_sigmoid", "softplus", "leaky_relu")
        )

    def cell_options(name: str) -> dict[str, Any]:
        return {"use_bias": pick(True, False)} | ({"reset_after": pick(True, False)} if "GRU" in name else {})

    def recurrent(**options: Any) -> Any:
        name, units = pick("LSTM", "GRU", "SimpleRNN"), int(rng.integers(1, 9))
        if rarely():
            options["zero_output_for_mask"] = True
        if rng.random() < 0.15:
            cells = [(pick("LSTMCell", "GRUCell"), int(rng.integers(1, 9)), {}) for _ in range(rng.integers(1, 3))]
            return ("RNN", cells, options)
        options |= cell_options(name)
        if rng.random() < 0.4:
            both = {"merge_mode": pick("sum", "mul", "ave")} if rarely() else {}
            if rng.random() < 0.3:
                other = pick("LSTM", "GRU") if rarely() else name
                run = {key: options[key] for key in ("return_sequences", "zero_output_for_mask") if key in options}
                both["backward_layer"] = (other, units, run | cell_options(other) | {"go_backwards": True})
            return ("Bidirectional", (name, units, options), both)
        backwards = (not (masked and options.get("return_sequences")) or rarely()) and rng.random() < 0.3
        return (name, units, options | {"go_backwards": bool(backwards)})

    def pointwise() -> Any:
        if rarely():
            return pick(("Softmax", (), {}), ("ReLU", (), {"max_value": 1.0}), ("Identity", (), {}))
        dense = ("Dense", int(rng.integers(1, 9)), {"activation": activation(), "use_bias": pick(True, False)})
        affine = {"center": pick(True, False), "scale": pick(True, False), "epsilon": pick(1e-3, 0.1)}
        norm = (pick("BatchNormalization", "LayerNormalization"), (), affine)
        return pick(dense, dense, norm, ("Activation", activation(), {}), ("ELU", 0.5, {}), ("Dropout", 0.5, {}))

    def convolution() -> Any:
        padding = pick("valid", "same", "causal")
        options = {"padding": padding, "activation": activation(), "use_bias": pick(True, False)}
        how = pick("dilation_rate", "strides") if padding != "same" or rarely() else "dilation_rate"
        return ("Conv1D", (int(rng.integers(1, 9)), int(rng.integers(1, 4))), options | {how: int(rng.integers(1, 3))})

    layers: list[Any] = [("Embedding", (IDS, int(rng.integers(1, 9))), {"mask_zero": masked})] if ids else []
    for _ in range(rng.integers(1, 4)):
        middle = [recurrent(**SEQUENCES), pointwise(), ("TimeDistributed", pointwise(), {})]
        layers.append(pick(*middle, *([] if masked and not rarely() else [convolution()])))
    if rng.random() < 0.6:
        pools = (
            ["GlobalAveragePooling1D"] if masked and not rarely() else ["GlobalAveragePooling1D", "GlobalMaxPooling1D"]
        )
        layers.append(pick(recurrent(), (pick(*pools), (), {})))
    layers += [pointwise(), ("Dense", 3, {})]
    if rng.random() < 0.25:
        layers[2:] = [("Sequential", layers[2:], {})]
    return layers


def make_layer(keras: Any, description: Any) -> Any:
    """A layer of a Keras module."""
    name, argument, options = description
    if isinstance(argument, tuple) and argument and isinstance(argument[0], str):
        argument = (make_layer(keras, argument),)
    elif isinstance(argument, list):
        argument = ([make_layer(keras, part) for part in argument],)
    arguments = argument if isinstance(argument, tuple) else (argument,)
    options = {key: make_layer(keras, value) if isinstance(value, tuple) else value for key, value in options.items()}
    return getattr(keras if name == "Sequential" else keras.layers, name)(*arguments, **options)


def masks(name: str) -> bool:
    return bool(ALL[name][0][2].get("mask_zero"))


def takes_ids(name: str) -> bool:
    return bool(ALL[name][0][0] == "Embedding")


def build(keras: Any, name: str) -> Any:
    """A model with weights that are multiples of 1/64, no two arrays alike."""
    keras.backend.clear_session()
    layers = [make_layer(keras, description) for description in ALL[name]]
    inputs = keras.Input((None,) if takes_ids(name) else (None, keras_cases.INPUTS))
    if name in FUNCTIONAL:
        y = inputs
        for one in layers:
            y = one(y)
        model = keras.Model(inputs, y)
    else:
        model = keras.Sequential([inputs, *layers])
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    weights = []
    for variable in model.weights:
        array = keras_cases.draw(rng, *variable.shape)
        weights.append(np.abs(array) + 0.25 if "variance" in variable.name else array)
    model.set_weights(weights)
    return model


def rows(name: str) -> list[np.ndarray]:
    """Inputs of unequal length: (T_i,) of ids, or (T_i, 3). With mask_zero, of one length and with zeros."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if masks(name):
        return [np.where([mark == "1" for mark in row], rng.integers(1, IDS, len(row)), 0) for row in MASKED]
    if takes_ids(name):
        return [rng.integers(0, IDS, length) for length in LENGTHS]
    return [keras_cases.draw(rng, length, keras_cases.INPUTS, most=2) for length in LENGTHS]


def answers(model: Any, name: str) -> list[np.ndarray]:
    """What Keras says to each row, at the steps that count: (T_i', O), or (O,). With mask_zero all are one batch."""
    given = rows(name)
    if not masks(name):
        return [np.array(model(row[None]))[0] for row in given]
    y = np.array(model(np.stack(given)))
    return [one if one.ndim == 1 else one[row != 0] for one, row in zip(y, given, strict=True)]


def runs(model: fastrnn.Sequential, name: str) -> dict[str, list[np.ndarray]]:
    """Our answers to the same rows as a list, padded, and alone."""
    given = rows(name)
    found = {"list": list(model(given)), "alone": [model(row) for row in given]}
    lengths = np.array([len(row) for row in given])
    padding = IDS + 5 if takes_ids(name) else np.nan  # no id
    x = np.full((len(given), lengths.max(), *given[0].shape[1:]), padding, given[0].dtype)
    for row, one in zip(x, given, strict=True):
        row[: len(one)] = one
    found["padded"] = list(model(x, lengths=lengths))
    if not model.pools:
        found["padded"] = [y[: model.output_steps(length)] for y, length in zip(found["padded"], lengths, strict=True)]
        if masks(name):
            found = {way: [y[row != 0] for y, row in zip(ys, given, strict=True)] for way, ys in found.items()}
    return found


def check(path: Path, name: str, expected: list[np.ndarray], config: Any = None) -> fastrnn.Sequential:
    """Load a file and compare it with Keras's answers; returns what was loaded."""
    loaded = fastrnn.load(path, config=config)
    assert isinstance(loaded, fastrnn.Sequential)
    for way, results in runs(loaded, name).items():
        for row, (ours, theirs) in enumerate(zip(results, expected, strict=True)):
            assert ours.shape == theirs.shape and ours.dtype == theirs.dtype == np.float32, (way, row)
            if np.isnan(theirs).all() and not rows(name)[row].any():
                continue  # Keras's mean over no step
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=3e-6, err_msg=f"{way}, row {row}")
    assert np.nanmax(np.abs(np.concatenate(expected))) > 1e-3  # not all zeros
    return loaded


class Golden:
    """The stored files and answers."""

    def __init__(self) -> None:
        with tarfile.open(FILE) as archive:
            self.files = {member.name: archive.extractfile(member).read() for member in archive}
        self.names = sorted(name for name in self.files if name.endswith((".keras", ".h5")))

    def answers(self, version: str, name: str) -> list[np.ndarray]:
        import io

        with np.load(io.BytesIO(self.files[f"{version}.npz"])) as arrays:
            return [arrays[f"{name}/{row}"] for row in range(len(rows(name)))]
