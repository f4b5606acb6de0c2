"""What the benchmarks run: shapes from ``shapes/*.txt``, lengths, weights and inputs, all from fixed seeds."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.resources import files
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastrnn.layers import LAYERS, Layer
from fastrnn.spec import NUM_GATES, WeightDtype

DEFAULT_GROUPS = ("stream", "single", "ragged", "dense")
LENGTHS = ("full", "uniform", "lognormal", "ort1400")
ORT1400 = [12, 32, 4, 52, 8, 64, 20, 36, 48, 40, 24, 60, 44, 16, 28, 56]  # published in onnxruntime issue 1400


class Workload(NamedTuple):
    """A line of a shapes file.

    Attributes
    ----------
    group : str
        The file's name.
    cell : str
        ``lstm``, ``gru`` or ``rnn``.
    input_size, hidden_size, num_layers, num_directions : int
        I, H, L and D.
    batch, steps : int
        B rows of up to T steps.
    lengths : str
        ``full`` (every row has T steps), ``uniform``, ``lognormal`` or ``ort1400``; ``stream``: every call takes one
        more step of every row and keeps the state.

    Examples
    --------
    >>> from fastrnn.benchmark.workloads import Workload
    >>> str(Workload("dense", "lstm", 28, 32, 1, 1, 128, 28, "full"))
    'dense lstm I28 H32 B128 T28'
    """

    group: str
    cell: str
    input_size: int
    hidden_size: int
    num_layers: int
    num_directions: int
    batch: int
    steps: int
    lengths: str

    @property
    def is_stream(self) -> bool:
        """Whether a call is one step."""
        return self.lengths == "stream"

    @property
    def is_ragged(self) -> bool:
        """Whether rows may differ in length."""
        return self.lengths not in ("full", "stream")

    @property
    def nonlinearity(self) -> Literal["tanh"] | None:
        """The nonlinearity of an RNN, as ``from_state_dict`` takes it."""
        return "tanh" if self.cell == "rnn" else None

    def input_sizes(self) -> list[int]:
        """The width of each layer's input."""
        deeper = self.num_directions * self.hidden_size
        return [self.input_size] + [deeper] * (self.num_layers - 1)

    def __str__(self) -> str:
        layers = f" L{self.num_layers}" if self.num_layers > 1 else ""
        directions = " D2" if self.num_directions > 1 else ""
        steps = " step" if self.is_stream else f" T{self.steps}" + (f" {self.lengths}" if self.is_ragged else "")
        shape = f"I{self.input_size} H{self.hidden_size}{layers}{directions} B{self.batch}{steps}"
        return f"{self.group} {self.cell} {shape}"


def read_groups() -> dict[str, list[Workload]]:
    """Return the workloads of every ``shapes/*.txt``, whose name is the group; the default groups first."""
    groups = {}
    for path in files("fastrnn.benchmark").joinpath("shapes").iterdir():
        if path.name.endswith(".txt"):
            group = path.name.removesuffix(".txt")
            groups[group] = [
                parse(group, fields)
                for line in path.read_text().splitlines()
                if (fields := line.partition("#")[0].split())
            ]
    order = [*DEFAULT_GROUPS, *sorted(groups.keys() - set(DEFAULT_GROUPS))]
    return {group: groups[group] for group in order}


def parse(group: str, fields: list[str]) -> Workload:
    """Make a workload from a line's words.

    Raises
    ------
    ValueError
        There are too few or too many words, or one of them does not fit.
    """
    line = " ".join(fields)
    if len(fields) != len(Workload._fields) - 1:
        raise ValueError(f"{group}: {line!r} has {len(fields)} words, wanted {', '.join(Workload._fields[1:])}")
    cell, *numbers, lengths = fields
    if cell not in LAYERS:
        raise ValueError(f"{group}: {line!r} starts with {cell!r}, wanted {', '.join(LAYERS)}")
    if not all(number.isdecimal() and int(number) > 0 for number in numbers):
        raise ValueError(f"{group}: {line!r} has sizes that are not positive integers")
    if lengths not in (*LENGTHS, "stream"):
        raise ValueError(f"{group}: {line!r} ends with {lengths!r}, wanted {', '.join(LENGTHS)} or stream")
    input_size, hidden_size, num_layers, num_directions, batch, steps = map(int, numbers)
    workload = Workload(group, cell, input_size, hidden_size, num_layers, num_directions, batch, steps, lengths)
    if workload.is_stream and (workload.steps, workload.num_directions) != (1, 1):
        raise ValueError(f"{group}: {line!r} is a stream, wanted 1 step in 1 direction")
    return workload


def choose(names: Iterable[str]) -> list[Workload]:
    """Return the workloads of the named groups, of the default groups without names, or of every group for ``all``.

    Raises
    ------
    ValueError
        There is no such group.
    """
    groups, names = read_groups(), list(names) or DEFAULT_GROUPS
    if unknown := [name for name in names if name not in (*groups, "all")]:
        raise ValueError(f"no group {', '.join(map(repr, unknown))}: the groups are {', '.join(groups)}, or all")
    wanted = groups if "all" in names else dict.fromkeys(names)
    return [workload for group in wanted for workload in groups[group]]


def draw_lengths(workload: Workload) -> NDArray[np.int64]:
    """Lengths (B,) from 1 to T in random order; the longest is T."""
    kind, batch, steps = workload.lengths, workload.batch, workload.steps
    if not workload.is_ragged:
        return np.full(batch, steps, np.int64)
    rng = np.random.default_rng(1)
    if kind == "uniform":
        lengths = rng.integers(1, steps + 1, batch)
    elif kind == "lognormal":
        lengths = np.clip(steps / 5 * rng.lognormal(0.0, 0.7, batch), 1, steps).astype(np.int64)
    else:
        lengths = np.clip(np.resize(ORT1400, batch), 1, steps)
    lengths[lengths.argmax()] = steps
    return lengths


def draw_weights(workload: Workload) -> dict[str, NDArray[np.float32]]:
    """A float32 state dict with PyTorch's names, distributed like PyTorch's initial weights."""
    rng = np.random.default_rng(2)
    H, rows = workload.hidden_size, NUM_GATES[workload.cell] * workload.hidden_size
    weights = {}
    for layer, width in enumerate(workload.input_sizes()):
        for direction in ("", "_reverse")[: workload.num_directions]:
            name = f"l{layer}{direction}"
            shapes = {"weight_ih": (rows, width), "weight_hh": (rows, H), "bias_ih": (rows,), "bias_hh": (rows,)}
            for part, shape in shapes.items():
                weights[f"{part}_{name}"] = rng.uniform(-1, 1, shape).astype(np.float32) / np.float32(np.sqrt(H))
    return weights


def draw_input(workload: Workload) -> NDArray[np.float32]:
    """Inputs (B, T, I)."""
    rng = np.random.default_rng(3)
    return rng.standard_normal((workload.batch, workload.steps, workload.input_size), np.float32)


def build_layer(workload: Workload, weight_dtype: WeightDtype = "float32") -> Layer:
    """The workload's fastrnn layer."""
    kind, weights = LAYERS[workload.cell], draw_weights(workload)
    return kind.from_state_dict(weights, nonlinearity=workload.nonlinearity, weight_dtype=weight_dtype)
