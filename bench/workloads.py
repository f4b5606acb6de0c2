"""What the benchmarks run: shapes from ``shapes/*.txt``, lengths, weights and inputs, all from fixed seeds."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

import fastrnn
from fastrnn.spec import NUM_GATES

SHAPES = Path(__file__).parent / "shapes"
ORT1400 = [12, 32, 4, 52, 8, 64, 20, 36, 48, 40, 24, 60, 44, 16, 28, 56]  # published in onnxruntime issue 1400
LAYERS = {"lstm": fastrnn.LSTM, "gru": fastrnn.GRU, "rnn": fastrnn.RNN}


class Workload(NamedTuple):
    group: str
    cell: str
    input_size: int
    hidden_size: int
    num_layers: int
    num_directions: int
    batch: int
    steps: int
    lengths: str  # full, uniform, lognormal or ort1400

    def __str__(self) -> str:
        layers = f"{self.num_layers}x{self.num_directions}"
        return f"{self.group}-{self.cell}-H{self.hidden_size}-{layers}-B{self.batch}-T{self.steps}-{self.lengths}"


def read_workloads() -> list[Workload]:
    """Read every line of ``shapes/*.txt``; the file's name is the group."""
    found = []
    for path in sorted(SHAPES.glob("*.txt")):
        for line in path.read_text().splitlines():
            if fields := line.partition("#")[0].split():
                cell, *sizes, lengths = fields
                found.append(Workload(path.stem, cell, *map(int, sizes), lengths))
    return found


def draw_lengths(kind: str, batch: int, steps: int) -> np.ndarray:
    """Lengths (batch,) int64 of 1 to `steps`, in random order, the longest as long as `steps`."""
    rng = np.random.default_rng(1)
    if kind == "full":
        return np.full(batch, steps)
    if kind == "uniform":
        lengths = rng.integers(1, steps + 1, batch)
    elif kind == "lognormal":
        lengths = np.clip(steps / 5 * rng.lognormal(0.0, 0.7, batch), 1, steps).astype(np.int64)
    elif kind == "ort1400":
        lengths = np.clip(np.resize(ORT1400, batch), 1, steps)
    else:
        raise ValueError(f"lengths is {kind!r}, wanted full, uniform, lognormal or ort1400")
    lengths[lengths.argmax()] = steps
    return lengths


def draw_weights(workload: Workload) -> dict[str, np.ndarray]:
    """A state dict with PyTorch's names, float32, spread as PyTorch's own start values are."""
    rng = np.random.default_rng(2)
    H, rows = workload.hidden_size, NUM_GATES[workload.cell] * workload.hidden_size
    weights = {}
    for layer in range(workload.num_layers):
        width = workload.num_directions * H if layer else workload.input_size
        for direction in ("", "_reverse")[: workload.num_directions]:
            name = f"l{layer}{direction}"
            shapes = {"weight_ih": (rows, width), "weight_hh": (rows, H), "bias_ih": (rows,), "bias_hh": (rows,)}
            for part, shape in shapes.items():
                weights[f"{part}_{name}"] = rng.uniform(-1, 1, shape).astype(np.float32) / np.float32(np.sqrt(H))
    return weights


def draw_input(workload: Workload) -> np.ndarray:
    """Inputs (B, T, I) float32."""
    rng = np.random.default_rng(3)
    return rng.standard_normal((workload.batch, workload.steps, workload.input_size), np.float32)


def build_layer(workload: Workload) -> fastrnn.LSTM | fastrnn.GRU | fastrnn.RNN:
    """The workload's fastrnn layer."""
    return LAYERS[workload.cell].from_state_dict(draw_weights(workload))
