"""Cells, batches and drivers on which TensorFlow and fastrnn.nn are compared; live_tensorflow.py has TensorFlow itself.

Weights and inputs come from ``RandomState``, whose numbers are the same in every version of NumPy, so that golden files
contain only TensorFlow's answers.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from fastrnn import nn
from fastrnn.nn.structure import map_structure, walk

#: Unsorted, with ties, ones, a zero and the full length.
LENGTHS = (3, 0, 6, 1, 3, 6, 1)
STEPS = 6


@dataclass(frozen=True)
class Cell:
    """A cell by the name of its class, its options and what is in it."""

    name: str
    num_units: int = 0
    cells: tuple[Cell, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def output_size(self) -> int:
        return self.cells[-1].output_size if self.cells else self.options.get("num_proj", self.num_units)


def cell(name: str, num_units: int, **options: Any) -> Cell:
    return Cell(name, num_units, options=options)


def multi(*cells: Cell, **options: Any) -> Cell:
    return Cell("MultiRNNCell", cells=cells, options=options)


def wrapped(name: str, inner: Cell, **options: Any) -> Cell:
    return Cell(name, cells=(inner,), options=options)


INPUT_SIZE = 5
CELLS = {
    "rnn": cell("BasicRNNCell", 7),
    "rnn_relu": cell("BasicRNNCell", 16, activation="relu"),
    "gru": cell("GRUCell", 9),
    "gru_softsign": cell("GRUCell", 1, activation="softsign"),
    "basic_lstm": cell("BasicLSTMCell", 8, forget_bias=0.3),
    "basic_lstm_concatenated": cell("BasicLSTMCell", 3, state_is_tuple=False),
    "lstm": cell("LSTMCell", 17),
    "lstm_relu": cell("LSTMCell", 3, activation="relu", forget_bias=-1.0),
    "lstm_peepholes": cell("LSTMCell", 9, use_peepholes=True),
    "lstm_clipped": cell("LSTMCell", 7, cell_clip=0.2, forget_bias=0.0),
    "lstm_projected": cell("LSTMCell", 15, num_proj=4, proj_clip=0.15, cell_clip=0.3, use_peepholes=True),
    "lstm_projected_concatenated": cell("LSTMCell", 4, num_proj=7, state_is_tuple=False),
    "multi_lstm": multi(*[cell("LSTMCell", 6)] * 3),
    "multi_projected": multi(*[cell("LSTMCell", 6, num_proj=3)] * 2),
    "multi_mixed": multi(cell("LSTMCell", 4), cell("GRUCell", 7), cell("BasicRNNCell", 3)),
    "multi_concatenated": multi(cell("GRUCell", 4), cell("BasicRNNCell", 6), state_is_tuple=False),
    "residual": wrapped("ResidualWrapper", cell("GRUCell", INPUT_SIZE)),
    "dropout": wrapped("DropoutWrapper", cell("LSTMCell", 3), output_keep_prob=1.0),
    "device": wrapped("DeviceWrapper", cell("GRUCell", 3), device="/cpu:0"),
    "nested": multi(
        wrapped("DropoutWrapper", cell("LSTMCell", 5)),
        wrapped("ResidualWrapper", wrapped("DeviceWrapper", cell("LSTMCell", 5), device="/cpu:0")),
        wrapped("ResidualWrapper", multi(cell("GRUCell", 6), cell("GRUCell", 5))),
    ),
    "own": cell("OwnCell", 4),
    "own_among_others": multi(cell("LSTMCell", 4), cell("OwnCell", 3), cell("GRUCell", 2)),
}

PAIRS = {
    "twins": (CELLS["lstm"], CELLS["lstm"]),
    "unlike": (CELLS["gru"], CELLS["lstm_projected"]),
    "nested_and_own": (CELLS["nested"], CELLS["own"]),
}

#: Two layers, the forward cells first; the second has 3 + 2 inputs.
STACK = (cell("LSTMCell", 3), cell("GRUCell", 4), cell("GRUCell", 2), cell("LSTMCell", 5))


class OwnCell:
    """A cell that does not use fastrnn: a leaky sum and a step counter in a nested state."""

    def __init__(self, num_units: int, weights: dict[str, np.ndarray]) -> None:
        self.num_units, self.weights = num_units, weights

    @property
    def state_size(self) -> Any:
        return (self.num_units, {"count": 1})

    @property
    def output_size(self) -> int:
        return self.num_units

    def __call__(self, inputs: np.ndarray, state: Any) -> tuple[np.ndarray, Any]:
        total, counter = state
        total = np.tanh(inputs @ self.weights["kernel"] + np.float32(0.5) * total)
        count = counter["count"] + 1
        return total / count, (total, {"count": count})


def shapes(cell: Cell, input_size: int) -> dict[str, tuple[int, ...]]:
    """TensorFlow's variables of a cell without inner cells."""
    H, P = cell.num_units, cell.output_size
    match cell.name:
        case "OwnCell":
            return {"kernel": (input_size, H)}
        case "BasicRNNCell":
            return {"kernel": (input_size + H, H), "bias": (H,)}
        case "GRUCell":
            rows = input_size + H
            gates = {"gates/kernel": (rows, 2 * H), "gates/bias": (2 * H,)}
            return gates | {"candidate/kernel": (rows, H), "candidate/bias": (H,)}
    found: dict[str, tuple[int, ...]] = {"kernel": (input_size + P, 4 * H), "bias": (4 * H,)}
    if cell.options.get("use_peepholes"):
        found |= {f"w_{gate}_diag": (H,) for gate in "ifo"}
    if "num_proj" in cell.options:
        found["projection/kernel"] = (H, P)
    return found


def leaves(cell: Cell, input_size: int) -> Iterator[tuple[Cell, int]]:
    """The cells that have weights, with the width of the inputs of each."""
    if not cell.cells:
        yield cell, input_size
    for inner in cell.cells:
        yield from leaves(inner, input_size)
        input_size = inner.output_size


def draw_weights(cell: Cell, input_size: int, random: np.random.RandomState) -> list[dict[str, np.ndarray]]:
    """Weights of each leaf."""

    def draw(shape: tuple[int, ...]) -> np.ndarray:
        return random.uniform(-0.5, 0.5, shape).astype(np.float32)

    return [
        {name: draw(shape) for name, shape in shapes(leaf, width).items()} for leaf, width in leaves(cell, input_size)
    ]


def _ours(cell: Cell, weights: Iterator[dict[str, np.ndarray]]) -> Any:
    """The cell in fastrnn.nn."""
    if cell.name == "OwnCell":
        return OwnCell(cell.num_units, next(weights))
    kind = getattr(nn.rnn_cell, cell.name)
    if not cell.cells:
        return kind(cell.num_units, weights=next(weights), **cell.options)
    inner = [_ours(part, weights) for part in cell.cells]
    return kind(inner if cell.name == "MultiRNNCell" else inner[0], **cell.options)


def ours(cell: Cell, weights: list[dict[str, np.ndarray]], input_size: int) -> Any:
    """The cell in fastrnn.nn with these weights."""
    return _ours(cell, iter(weights))


def make(cell: Cell, input_size: int = INPUT_SIZE) -> Any:
    """The cell in fastrnn.nn with some weights, the same every time."""
    return ours(cell, draw_weights(cell, input_size, np.random.RandomState(0)), input_size)


class Case(NamedTuple):
    """One comparison: cells, the widths of their inputs, lengths, and whether there are initial states."""

    name: str
    cells: tuple[Cell, ...]
    widths: tuple[int, ...]
    lengths: tuple[int, ...] | None
    has_starts: bool

    def draw(self) -> Drawn:
        """The case's numbers, the same every time."""
        random = np.random.RandomState(zlib.crc32(self.name.encode()))
        weights = [draw_weights(cell, width, random) for cell, width in zip(self.cells, self.widths, strict=True)]
        x = random.standard_normal((len(LENGTHS), STEPS, INPUT_SIZE)).astype(np.float32)
        starts: list[Any] = [None] * len(self.cells)
        if self.has_starts:
            sizes = [ours(*drawn).state_size for drawn in zip(self.cells, weights, self.widths, strict=True)]
            starts = [map_structure(lambda size: _uniform(random, len(x), size), size) for size in sizes]
        return Drawn(weights, x, starts)


class Drawn(NamedTuple):
    """For each cell the weights of its leaves and the initial state or None; x (B, T, I)."""

    weights: list[list[dict[str, np.ndarray]]]
    x: np.ndarray
    starts: list[Any]


def _uniform(random: np.random.RandomState, *shape: int) -> np.ndarray:
    return random.uniform(-1, 1, shape).astype(np.float32)


def random_cell(rng: np.random.Generator, input_size: int, depth: int = 2) -> Cell:
    """Any cell, of unusual sizes, in up to `depth` others."""
    units = int(rng.choice([1, 2, 7, 8, 9, 15, 16, 17, 33]))
    name = str(
        rng.choice(["BasicRNNCell", "GRUCell", "BasicLSTMCell", "LSTMCell", "OwnCell", "MultiRNNCell", "wrapper"])
    )
    if depth and name == "MultiRNNCell":
        cells = [random_cell(rng, input_size, depth - 1)]
        for _ in range(rng.integers(1, 4)):
            again = rng.random() < 0.5 and not cells[-1].cells
            cells.append(cells[-1] if again else random_cell(rng, cells[-1].output_size, depth - 1))
        return multi(*cells)
    if depth and name == "wrapper":
        inner = random_cell(rng, input_size, depth - 1)
        if inner.output_size == input_size:
            return wrapped("ResidualWrapper", inner)
        return (
            wrapped("DeviceWrapper", inner, device="/cpu:0") if rng.random() < 0.5 else wrapped("DropoutWrapper", inner)
        )
    if name in ("MultiRNNCell", "wrapper"):
        name, units = "GRUCell", input_size
    options: dict[str, Any] = {}
    if name not in ("OwnCell",) and rng.random() < 0.3:
        options["activation"] = str(rng.choice(["relu", "softsign", "sigmoid", "linear", "hard_sigmoid"]))
    if "LSTM" in name:
        options |= {"forget_bias": float(rng.uniform(-1, 2)), "state_is_tuple": bool(rng.random() < 0.8)}
    if name == "LSTMCell":
        maybe = {"use_peepholes": True, "cell_clip": 0.3, "num_proj": int(rng.integers(1, 10)), "proj_clip": 0.2}
        options |= {option: value for option, value in maybe.items() if rng.random() < 0.5}
    return cell(name, units, **options)


def _cases(groups: dict[str, tuple[tuple[Cell, ...], tuple[int, ...]]]) -> list[Case]:
    variants = {"full": (None, True), "ragged": (LENGTHS, True), "ragged_from_zero": (LENGTHS, False)}
    return [Case(f"{name}-{v}", *cells, *how) for name, cells in groups.items() for v, how in variants.items()]


ONE_WAY = _cases({name: ((cell,), (INPUT_SIZE,)) for name, cell in CELLS.items()})
BOTH_WAYS = _cases({name: (pair, (INPUT_SIZE, INPUT_SIZE)) for name, pair in PAIRS.items()})
STACKED = _cases({"stacked": (STACK, (INPUT_SIZE, INPUT_SIZE, 5, 5))})


class Framework(NamedTuple):
    """The parts of a framework that cases need: drivers, cells from descriptions, arrays from NumPy's."""

    nn: Any
    build: Callable[[Cell, list[dict[str, np.ndarray]], int], Any]
    array: Callable[[Any], Any]

    def prepare(self, case: Case, poison: bool) -> tuple[list[Any], np.ndarray, list[Any]]:
        """Cells, x and initial states of a case; `poison` puts NaN past each row's end, which changes nothing."""
        weights, x, starts = case.draw()
        for row, length in enumerate(case.lengths or ()) if poison else ():
            x[row, length:] = np.nan
        cells = [self.build(*drawn) for drawn in zip(case.cells, weights, case.widths, strict=True)]
        return cells, x, [None if start is None else map_structure(self.array, start) for start in starts]

    def steps(self, x: np.ndarray) -> list[Any]:
        return [self.array(step) for step in x.swapaxes(0, 1)]


FASTRNN = Framework(nn, ours, np.asarray)

Found = dict[str, np.ndarray]


def run_one_way(case: Case, driver: str, framework: Framework = FASTRNN, poison: bool = False) -> Found:
    """Run a case of ONE_WAY."""
    (cell,), x, (start,) = framework.prepare(case, poison)
    if driver == "static_rnn":
        steps, state = framework.nn.static_rnn(cell, framework.steps(x), start, np.float32, case.lengths)
        return _named(outputs=np.stack(steps, axis=1), state=state)
    time_major = driver.endswith("time_major")
    outputs, state = framework.nn.dynamic_rnn(
        cell, framework.array(_turned(x, time_major)), case.lengths, start, dtype=np.float32, time_major=time_major
    )
    return _named(outputs=_turned(outputs, time_major), state=state)


def run_both_ways(case: Case, driver: str, framework: Framework = FASTRNN, poison: bool = False) -> Found:
    """Run a case of BOTH_WAYS."""
    cells, x, starts = framework.prepare(case, poison)
    if driver == "static_bidirectional_rnn":
        steps, state_fw, state_bw = framework.nn.static_bidirectional_rnn(
            *cells, framework.steps(x), *starts, np.float32, case.lengths
        )
        return _named(outputs=np.stack(steps, axis=1), state_fw=state_fw, state_bw=state_bw)
    time_major = driver.endswith("time_major")
    outputs, (state_fw, state_bw) = framework.nn.bidirectional_dynamic_rnn(
        *cells,
        framework.array(_turned(x, time_major)),
        case.lengths,
        *starts,
        dtype=np.float32,
        time_major=time_major,
    )
    outputs = np.concatenate([_turned(output, time_major) for output in outputs], axis=2)
    return _named(outputs=outputs, state_fw=state_fw, state_bw=state_bw)


def run_stacked(case: Case, driver: str, framework: Framework = FASTRNN, poison: bool = False) -> Found:
    """Run a case of STACKED: the first half of its cells forward, the second backward."""
    cells, x, starts = framework.prepare(case, poison)
    half, time_major = len(cells) // 2, driver.endswith("time_major")
    outputs, states_fw, states_bw = framework.nn.stack_bidirectional_dynamic_rnn(
        cells[:half],
        cells[half:],
        framework.array(_turned(x, time_major)),
        starts[:half] if case.has_starts else None,
        starts[half:] if case.has_starts else None,
        dtype=np.float32,
        sequence_length=case.lengths,
        time_major=time_major,
    )
    return _named(outputs=_turned(outputs, time_major), states_fw=states_fw, states_bw=states_bw)


def _both_majors(driver: str) -> tuple[str, str]:
    return driver, f"{driver} time_major"


#: How to run cases, the cases, and the drivers that must all give the same results.
GROUPS: list[tuple[Callable[..., Found], list[Case], tuple[str, ...]]] = [
    (run_one_way, ONE_WAY, (*_both_majors("dynamic_rnn"), "static_rnn")),
    (run_both_ways, BOTH_WAYS, (*_both_majors("bidirectional_dynamic_rnn"), "static_bidirectional_rnn")),
    (run_stacked, STACKED, _both_majors("stack_bidirectional_dynamic_rnn")),
]


def assert_same(found: Found, wanted: Found, tolerance: float = 3e-6) -> None:
    """Check for equality up to rounding, relative to numbers greater than 1."""
    assert found.keys() == wanted.keys()
    for path, array in wanted.items():
        assert found[path].dtype == array.dtype
        atol = tolerance * max(1, np.abs(array).max(initial=0))
        np.testing.assert_allclose(found[path], array, rtol=0, atol=atol, err_msg=path)


def _turned(array: Any, time_major: bool) -> np.ndarray:
    """(B, T, ...) to (T, B, ...) and back."""
    return np.ascontiguousarray(np.asarray(array).swapaxes(0, 1)) if time_major else np.asarray(array)


def _named(**parts: Any) -> Found:
    """Every array under a name such as state[0].c."""
    return {path: np.asarray(leaf) for name, part in parts.items() for path, leaf in walk(part, name)}
