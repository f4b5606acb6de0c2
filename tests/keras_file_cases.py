"""Models that Keras saves, the way to run them there, and what our loaded layers have to agree with."""

from __future__ import annotations

import io
import json
import tarfile
import zlib
from pathlib import Path
from typing import Any

import keras_cases
import numpy as np

import fastrnn

FILE = Path(__file__).parent / "golden" / "keras_files.tar.xz"
MASKS = ("right", "holes")
FORMATS = (".keras", ".h5", ".weights.h5")

#: Step values that a Masking layer takes out.
MASKED = 0.25


def _options(**options: Any) -> dict[str, Any]:
    return {"return_sequences": True} | options


#: name -> layers of a Sequential model: (class, arguments, options); options may hold layers and cells, too.
CASES: dict[str, list[Any]] = {
    "lstm": [("LSTM", 5, _options())],
    "lstm-last": [("LSTM", 5, {})],
    "lstm-no-bias": [("LSTM", 5, _options(use_bias=False))],
    "lstm-hard-sigmoid": [("LSTM", 5, _options(recurrent_activation="hard_sigmoid", activation="softsign"))],
    "lstm-dropout": [("LSTM", 5, _options(dropout=0.5, recurrent_dropout=0.5)), ("Dropout", 0.5, {})],
    "gru": [("GRU", 5, _options())],
    "gru-before": [("GRU", 5, _options(reset_after=False, recurrent_activation="hard_sigmoid", activation="elu"))],
    "gru-no-bias": [("GRU", 5, _options(use_bias=False))],
    "gru-before-no-bias": [("GRU", 5, _options(use_bias=False, reset_after=False))],
    "gru-float64": [("GRU", 5, _options(dtype="float64"))],
    "rnn": [("SimpleRNN", 5, _options())],
    "rnn-relu": [("SimpleRNN", 5, _options(activation="relu", use_bias=False))],
    "rnn-linear": [("SimpleRNN", 5, _options(activation="linear"))],
    "rnn-softplus": [("SimpleRNN", 5, {"activation": "softplus"})],
    "rnn-sigmoid": [("SimpleRNN", 5, _options(activation="sigmoid"))],
    "stack": [("LSTM", 5, _options()), ("LSTM", 5, _options(activation="relu")), ("LSTM", 5, {})],
    "stack-unlike": [("LSTM", 5, _options()), ("GRU", 4, _options()), ("SimpleRNN", 2, {})],
    "backwards": [("LSTM", 5, _options(go_backwards=True))],
    "backwards-last": [("GRU", 5, {"go_backwards": True})],
    "backwards-stack": [("GRU", 5, _options(go_backwards=True)), ("GRU", 5, _options())],
    "stateful": [("LSTM", 5, _options(stateful=True))],
    "masking": [("Masking", MASKED, {}), ("LSTM", 5, _options()), ("Dropout", 0.5, {}), ("LSTM", 5, {})],
    "both": [("Bidirectional", ("LSTM", 5, _options()), {})],
    "both-last": [("Bidirectional", ("GRU", 5, {}), {})],
    "both-before": [
        ("Bidirectional", ("GRU", 5, _options(reset_after=False, recurrent_activation="hard_sigmoid")), {})
    ],
    "both-sum": [("Bidirectional", ("LSTM", 5, _options()), {"merge_mode": "sum"})],
    "both-mul": [("Bidirectional", ("GRU", 5, _options()), {"merge_mode": "mul"})],
    "both-ave": [("Bidirectional", ("SimpleRNN", 5, {}), {"merge_mode": "ave"})],
    "both-stack": [("Bidirectional", ("GRU", 4, _options()), {}), ("Bidirectional", ("GRU", 4, _options()), {})],
    "both-unlike": [
        (
            "Bidirectional",
            ("LSTM", 4, _options()),
            {"backward_layer": ("GRU", 3, _options(go_backwards=True, reset_after=False))},
        ),
    ],
    "cell": [("RNN", ("GRUCell", 5, {}), _options())],
    "cells": [("RNN", [("LSTMCell", 4, {}), ("LSTMCell", 4, {"use_bias": False})], _options())],
    "cells-unlike": [("RNN", [("LSTMCell", 4, {}), ("GRUCell", 3, {}), ("GRUCell", 5, {})], {})],
    "cells-in-a-row": [("RNN", ("SimpleRNNCell", 4, {}), _options()), ("RNN", ("SimpleRNNCell", 4, {}), {})],
}

#: Cases of Keras's functional models: name -> as above.
FUNCTIONAL: dict[str, list[Any]] = {
    "functional": [("LSTM", 5, _options()), ("LSTM", 5, {})],
    "functional-masking": [
        ("Masking", MASKED, {}),
        ("Bidirectional", ("LSTM", 3, _options()), {"merge_mode": "sum"}),
        ("GRU", 5, _options()),
    ],
    "functional-both-none": [("Bidirectional", ("LSTM", 5, _options()), {"merge_mode": None})],
    "functional-state": [("Masking", MASKED, {}), ("LSTM", 5, _options(return_state=True))],
}

#: Cases of Keras 2 alone, whose old files they are.
CUDNN: dict[str, list[Any]] = {
    "cudnn-lstm": [("CuDNNLSTM", 5, _options()), ("CuDNNLSTM", 5, {})],
    "cudnn-gru": [("CuDNNGRU", 5, _options())],
    "cudnn-both": [("Bidirectional", ("CuDNNGRU", 5, _options()), {"merge_mode": "ave"})],
}

ALL = CASES | FUNCTIONAL | CUDNN


def layer(keras: Any, description: Any) -> Any:
    """A layer of a Keras module."""
    name, argument, options = description
    if isinstance(argument, tuple):
        argument = layer(keras, argument)
    elif isinstance(argument, list):
        argument = [layer(keras, cell) for cell in argument]
    options = {key: layer(keras, value) if isinstance(value, tuple) else value for key, value in options.items()}
    if name.startswith("CuDNN"):
        from tf_keras.src.layers.rnn import cudnn_gru, cudnn_lstm

        return {"CuDNNLSTM": cudnn_lstm.CuDNNLSTM, "CuDNNGRU": cudnn_gru.CuDNNGRU}[name](argument, **options)
    return getattr(keras.layers, name)(argument, **options)


def build(keras: Any, name: str) -> Any:
    """A model with weights that are multiples of 1/64, no two arrays alike."""
    keras.backend.clear_session()
    layers = [layer(keras, description) for description in ALL[name]]
    batch = {"batch_size": len(keras_cases.MASKS["right"])} if name == "stateful" else {}
    inputs = keras.Input((None if not batch else keras_cases.STEPS, keras_cases.INPUTS), **batch)
    if name in FUNCTIONAL:
        y = inputs
        for one in layers:
            y = one(y[0] if isinstance(y, list | tuple) else y)
        model = keras.Model(inputs, y)
    else:
        model = keras.Sequential([inputs, *layers])
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    model.set_weights([keras_cases.draw(rng, *array.shape) for array in model.get_weights()])
    return model


def inputs(name: str, mask: str) -> tuple[np.ndarray, np.ndarray | None]:
    """x, and the mask to call with: None where the model's own Masking layer makes it out of x."""
    rng = np.random.default_rng(zlib.crc32(f"{name}{mask}".encode()))
    x, _ = keras_cases.random_inputs(rng, 0)
    counted = keras_cases.MASKS[mask]
    if any(part[0] == "Masking" for part in ALL[name]):
        x[~counted] = MASKED
        return x, None
    x[~counted] = 1.5
    return x, counted


def answers(model: Any, name: str, mask: str) -> list[np.ndarray]:
    """What Keras says; a stateful model is called twice."""
    x, counted = inputs(name, mask)
    for part in model.layers:
        if getattr(part, "stateful", False):
            (part.reset_state if hasattr(part, "reset_state") else part.reset_states)()
    results = []
    for _ in range(2 if name == "stateful" else 1):
        y = model(x, mask=counted) if counted is not None else model(x)
        results += [np.array(part) for part in (y if isinstance(y, list | tuple) else [y])]
    return results


def saved(model: Any, directory: Path) -> dict[str, bytes]:
    """Ending -> bytes of the model's files, and the configuration under ".json"."""
    files = {}
    for ending in FORMATS:
        path = directory / f"model{ending}"
        (model.save_weights if ending == ".weights.h5" else model.save)(path)
        files[ending] = path.read_bytes()
    return files | {".json": model.to_json().encode()}


def check(path: Path, name: str, mask: str, expected: list[np.ndarray], config: Any = None) -> Any:
    """Load a file and compare it with Keras's answers to ragged input; returns what was loaded."""
    loaded = fastrnn.load(path, config=config)
    x, counted = inputs(name, mask)
    if isinstance(loaded, fastrnn.LSTM | fastrnn.GRU | fastrnn.RNN):
        counted = keras_cases.MASKS[mask] if counted is None else counted
        past_end = "zero" if loaded.bidirectional else "carry"
        y, state = loaded(x, mask=counted, past_end=past_end, casting="same_kind")
        last = np.concatenate(list(h[-loaded.num_directions :] if (h := state_h(state)) is not None else []), axis=-1)
        results = [y if expected[0].ndim == 3 else last]
        if len(expected) > 1:
            results += [part[-1] for part in state]
    else:
        results = []
        for _ in range(2 if name == "stateful" else 1):
            y = loaded(x, mask=counted)
            results += list(y) if isinstance(y, tuple) else [y]
    assert len(results) == len(expected)
    for ours, theirs in zip(results, expected, strict=True):
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
        assert np.abs(theirs).max() > 1e-3  # not all zeros
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=3e-6)
    return loaded


def state_h(state: Any) -> np.ndarray:
    return state[0] if isinstance(state, tuple) else state


def config_of(files: dict[str, bytes], ending: str) -> Any:
    """What ``config=`` has to be for a file of this ending."""
    return json.loads(files[".json"]) if ending == ".weights.h5" else None


class Golden:
    """The stored files and answers."""

    def __init__(self) -> None:
        with tarfile.open(FILE) as archive:
            self.files = {member.name: archive.extractfile(member).read() for member in archive}
        self.names = sorted(name for name in self.files if name.endswith(FORMATS))

    def read(self, name: str) -> bytes:
        return self.files[name]

    def answers(self, version: str, name: str, mask: str) -> list[np.ndarray]:
        with np.load(io.BytesIO(self.files[f"{version}.npz"])) as arrays:
            keys = sorted(key for key in arrays.files if key.startswith(f"{name}/{mask}/"))
            return [arrays[key] for key in keys]
