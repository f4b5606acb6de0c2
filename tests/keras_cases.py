"""Cases for comparison with Keras: options, inputs, and a function that runs fastrnn's layer."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

import fastrnn

#: name -> class, options other than those of the run
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "rnn": ("SimpleRNN", {}),
    "rnn-relu-no-bias": ("SimpleRNN", {"activation": "relu", "use_bias": False}),
    "lstm": ("LSTM", {}),
    "lstm-no-bias": ("LSTM", {"use_bias": False}),
    "lstm-activations": ("LSTM", {"activation": "softsign", "recurrent_activation": "hard_sigmoid"}),
    "gru": ("GRU", {}),
    "gru-reset-before": ("GRU", {"reset_after": False}),
    "gru-no-bias": ("GRU", {"use_bias": False}),
    "gru-reset-before-no-bias": ("GRU", {"reset_after": False, "use_bias": False}),
    "gru-activations": ("GRU", {"activation": None, "recurrent_activation": "hard_sigmoid", "reset_after": False}),
}

#: Options of the run, each on and off.
RUNS = [
    dict(zip(("return_sequences", "go_backwards", "zero_output_for_mask"), flags, strict=True))
    for flags in itertools.product((False, True), repeat=3)
]

MERGE_MODES = ("concat", "sum", "ave", "mul", None)

STEPS, INPUTS, UNITS = 7, 3, 5

#: Batches of every pattern of masked steps: holes, right and left padding, all, none, one.
MASKS = {
    name: np.array([[mark == "1" for mark in row] for row in rows])
    for name, rows in {
        "holes": ("1011010", "0000000", "1111111", "0011100", "0000010", "0101001"),
        "right": ("1110000", "0000000", "1111111", "1000000", "1111110", "1110000"),
        "left": ("0000111", "0000000", "1111111", "0000001", "0111111", "0000111"),
    }.items()
}


def draw(rng: np.random.Generator, *shape: int, most: float = 0.75) -> np.ndarray:
    """Multiples of 1/64 from -most to most, which compress well."""
    return (rng.integers(-int(64 * most), int(64 * most) + 1, shape) / 64).astype(np.float32)


def random_inputs(rng: np.random.Generator, num_states: int, units: int = UNITS) -> tuple[np.ndarray, list[np.ndarray]]:
    """x (6, 7, 3) and non-zero states (6, units)."""
    return draw(rng, 6, STEPS, INPUTS, most=2), [draw(rng, 6, units) for _ in range(num_states)]


def num_states(name: str) -> int:
    return 2 if VARIANTS[name][0] == "LSTM" else 1


def random_weights(rng: np.random.Generator, name: str, units: int = UNITS, inputs: int = INPUTS) -> list[np.ndarray]:
    """Weights in Keras's shapes, all different."""
    kind, options = VARIANTS[name]
    columns = {"SimpleRNN": 1, "GRU": 3, "LSTM": 4}[kind] * units
    bias = (2, columns) if kind == "GRU" and options.get("reset_after", True) else (columns,)
    shapes = [(inputs, columns), (units, columns), bias][: 3 if options.get("use_bias", True) else 2]
    return [draw(rng, *shape) for shape in shapes]


def ours(name: str, units: int = UNITS, **options: Any) -> Any:
    kind, variant = VARIANTS[name]
    return getattr(fastrnn.keras, kind)(units, **variant, **options)


#: Keras's own answers, stored: case -> variant or pair of them, merge mode ("" if it is one layer), mask, run.
GOLDEN: dict[str, tuple[tuple[str, ...], Any, str, dict[str, Any]]] = {}
for number, (variant, mask) in enumerate(itertools.product(VARIANTS, MASKS)):
    run = RUNS[number % len(RUNS)]
    GOLDEN[f"{variant}-{mask}-{number}"] = ((variant,), "", mask, run)
for number, (variant, mode) in enumerate(itertools.product(("rnn", "lstm", "gru"), MERGE_MODES)):
    mask = list(MASKS)[number % len(MASKS)]
    GOLDEN[f"both-{variant}-{mode}"] = ((variant, variant), mode, mask, {"return_sequences": number % 2 == 0})
