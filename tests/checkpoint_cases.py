"""Graphs whose checkpoints are stored in tests/golden/checkpoints, and what fastrnn makes of them.

One checkpoint has them all, each under a variable scope of its own name (oracle/make_tensorflow_checkpoints.py).
Weights, inputs and initial states come from ``RandomState``, so that only TensorFlow's answers are stored.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tensorflow_cases import CELLS, INPUT_SIZE, LENGTHS, PAIRS, STACK, STEPS, Cell, cell, multi, wrapped

from fastrnn import nn
from fastrnn.files.tensorflow_index import read_index
from fastrnn.layers import LAYERS
from fastrnn.nn.structure import map_structure, walk

GOLDEN = Path(__file__).parent / "golden"
FOLDER = GOLDEN / "checkpoints"

#: The checkpoint with every graph, and two whose only layer needs no scope.
GRAPHS, TRAINED, OLD = (str(FOLDER / name) for name in ("graphs.ckpt", "trained.ckpt", "old.ckpt"))

#: Scopes of drivers; a static driver has that of the dynamic one.
SCOPES = {"one": ("rnn",), "both": ("bidirectional_rnn/fw", "bidirectional_rnn/bw")}


@dataclass(frozen=True)
class Graph:
    """Cells, the driver that runs them ("one", "both" or "stack" of both directions) and what `load` is passed.

    `options` is None where no layer of the engine is what the cells are.
    """

    name: str
    driver: str
    cells: tuple[Cell, ...]
    options: dict[str, Any] | None = field(default_factory=dict)
    dtype: str = "float32"

    def scopes(self) -> list[str]:
        """The scope of each cell."""
        if self.driver != "stack":
            return [f"{self.name}/{scope}" for scope in SCOPES[self.driver]]
        half = len(self.cells) // 2
        return [
            f"{self.name}/stack_bidirectional_rnn/cell_{k}/bidirectional_rnn/{way}"
            for way in ("fw", "bw")
            for k in range(half)
        ]

    def random(self, what: str) -> np.random.RandomState:
        return np.random.RandomState(zlib.crc32(f"{what} {self.name}".encode()))

    def draw(self, sizes: list[Any]) -> tuple[np.ndarray, list[Any]]:
        """Inputs (B, T, I), and initial states of these sizes, all different."""
        random = self.random("inputs")
        x = random.standard_normal((len(LENGTHS), STEPS, INPUT_SIZE)).astype(self.dtype)
        starts = [
            map_structure(lambda size: random.uniform(-1, 1, (len(x), size)).astype(self.dtype), size) for size in sizes
        ]
        return x, starts

    def weights(self, shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
        """Values of the graph's variables."""
        random = self.random("weights")
        return {name: random.uniform(-0.6, 0.6, shapes[name]).astype(self.dtype) for name in sorted(shapes)}


def _refused(*names: str) -> list[Graph]:
    return [Graph(name, "one", (CELLS[name],), None) for name in names]


def _loaded(name: str, made: Cell, **options: Any) -> Graph:
    return Graph(name, "one", (made,), options)


CUDNN_LSTM, CUDNN_GRU = cell("CudnnCompatibleLSTMCell", 5), cell("CudnnCompatibleGRUCell", 5)

LIST = [
    _loaded("rnn", CELLS["rnn"], nonlinearity="tanh"),
    _loaded("rnn_relu", CELLS["rnn_relu"], nonlinearity="relu"),
    _loaded("rnn_stack", multi(*[cell("BasicRNNCell", 6)] * 2), nonlinearity="tanh"),
    _loaded("gru", CELLS["gru"]),
    _loaded("gru_named", Cell("GRUCell", 3, options={"name": "reader"})),
    _loaded("basic_lstm", CELLS["basic_lstm"], forget_bias=0.3),
    _loaded("lstm", CELLS["lstm"], forget_bias=1.0),
    _loaded("lstm_named", Cell("LSTMCell", 3, options={"name": "reader", "forget_bias": 0.0}), forget_bias=0.0),
    _loaded("lstm_peepholes", CELLS["lstm_peepholes"], forget_bias=1.0),
    _loaded("lstm_projected", cell("LSTMCell", 9, num_proj=4, use_peepholes=True), forget_bias=1.0),
    _loaded("lstm_float64", cell("LSTMCell", 4), forget_bias=1.0),
    _loaded("multi_lstm", CELLS["multi_lstm"], forget_bias=1.0),
    _loaded("multi_projected", CELLS["multi_projected"], forget_bias=1.0),
    _loaded("multi_nested", multi(multi(*[cell("GRUCell", 4)] * 2), cell("GRUCell", 4))),
    _loaded("dropout", CELLS["dropout"], forget_bias=1.0),
    _loaded("device", CELLS["device"]),
    *_refused("gru_softsign", "lstm_relu", "lstm_clipped", "multi_mixed", "residual", "nested"),
    Graph("clipped_projection", "one", (CELLS["lstm_projected"],), None),
    Graph("concatenated", "one", (CELLS["basic_lstm_concatenated"],), {"forget_bias": 1.0}),
    Graph("twins", "both", PAIRS["twins"], {"forget_bias": 1.0}),
    Graph("gru_both", "both", (CELLS["gru"],) * 2),
    Graph("unlike", "both", PAIRS["unlike"], None),
    Graph("both_multi", "both", (multi(*[cell("GRUCell", 3)] * 2),) * 2, None),
    Graph("stack", "stack", (cell("LSTMCell", 3),) * 4, {"forget_bias": 1.0}),
    Graph("stack_unlike", "stack", STACK, None),
    Graph("cudnn_lstm", "stack", (CUDNN_LSTM,) * 4),
    _loaded("cudnn_gru", multi(CUDNN_GRU, CUDNN_GRU)),
    Graph("cudnn_gru_both", "stack", (CUDNN_GRU,) * 2),
    _loaded("wrapped", wrapped("DropoutWrapper", wrapped("DeviceWrapper", cell("GRUCell", 4), device="/cpu:0"))),
]
LIST = [Graph(g.name, g.driver, g.cells, g.options, "float64") if "float64" in g.name else g for g in LIST]

BY_NAME = {graph.name: graph for graph in LIST}

LOADED = [graph for graph in LIST if graph.options is not None]


def raw_reader(prefix: str) -> Callable[[str], np.ndarray]:
    """What reads a stored checkpoint's variables without TensorFlow: their bytes, where the index says."""
    entries = read_index(prefix)
    data = Path(f"{prefix}.data-00000-of-00001").read_bytes()

    def read(name: str) -> np.ndarray:
        entry = entries[name]
        assert not entry.in_slices
        return np.frombuffer(data, entry.dtype, int(np.prod(entry.shape)), entry.offset).reshape(entry.shape)

    return read


def leaf_scopes(made: Cell, scope: str) -> Iterator[tuple[Cell, str]]:
    """The cells with weights in a cell, each with the scope that TensorFlow gives it."""
    if not made.cells:
        yield made, scope
    for k, inner in enumerate(made.cells):
        yield from leaf_scopes(inner, f"{scope}/multi_rnn_cell/cell_{k}" if made.name == "MultiRNNCell" else scope)


def nn_cell(made: Cell, scope: str, weights: Callable[[str], Any]) -> Any:
    """The cell in fastrnn.nn, each leaf with what `weights` gives of its scope."""
    options = {name: value for name, value in made.options.items() if name != "name"}
    if not made.cells:
        return getattr(nn.rnn_cell, made.name)(made.num_units, weights=weights(scope), **options)
    inner = [
        nn_cell(part, f"{scope}/multi_rnn_cell/cell_{k}" if made.name == "MultiRNNCell" else scope, weights)
        for k, part in enumerate(made.cells)
    ]
    return getattr(nn.rnn_cell, made.name)(inner if made.name == "MultiRNNCell" else inner[0], **options)


def run_nn(graph: Graph, weights: Callable[[str], Any]) -> tuple[np.ndarray, list[Any]]:
    """Outputs, directions side by side, and the states of all cells."""
    cells = [nn_cell(made, scope, weights) for made, scope in zip(graph.cells, graph.scopes(), strict=True)]
    x, starts = graph.draw([made.state_size for made in cells])
    outputs, states = run(graph, cells, x, starts, nn, nn.stack_bidirectional_dynamic_rnn)
    return np.concatenate(outputs, axis=2) if graph.driver == "both" else outputs, states


def named(outputs: Any, states: Any) -> dict[str, np.ndarray]:
    """Every array under a name such as states[0].c."""
    parts = (("outputs", outputs), ("states", states))
    return {path: np.asarray(leaf) for name, part in parts for path, leaf in walk(part, name)}


def run(graph: Graph, cells: list[Any], x: Any, starts: list[Any], tf_nn: Any, stack: Any) -> tuple[Any, list[Any]]:
    """Run a graph's cells by the drivers of fastrnn.nn, or of TensorFlow."""
    if graph.driver == "one":
        outputs, state = tf_nn.dynamic_rnn(cells[0], x, LENGTHS, starts[0])
        return outputs, [state]
    if graph.driver == "both":
        outputs, states = tf_nn.bidirectional_dynamic_rnn(*cells, x, LENGTHS, *starts)
        return outputs, list(states)
    half = len(cells) // 2
    outputs, fw, bw = stack(cells[:half], cells[half:], x, starts[:half], starts[half:], sequence_length=LENGTHS)
    return outputs, [*fw, *bw]


def state_size(made: Cell) -> Any:
    """What a cell's `state_size` is, in either framework."""
    if made.cells:
        sizes = tuple(state_size(inner) for inner in made.cells)
        return sizes if made.name == "MultiRNNCell" else sizes[0]
    if "LSTM" not in made.name:
        return made.num_units
    sizes = nn.rnn_cell.LSTMStateTuple(made.num_units, made.output_size)
    return sizes if made.options.get("state_is_tuple", True) else sum(sizes)


def run_layer(graph: Graph, spec: Any) -> tuple[np.ndarray, list[np.ndarray]]:
    """Outputs and states (of an LSTM h and c) of the layer that a graph's cells are, with the same inputs."""
    x, starts = graph.draw([state_size(made) for made in graph.cells])
    parts = layer_states(graph, spec, starts)
    y, last = LAYERS[spec.kind](spec)(x, tuple(parts) if spec.kind == "lstm" else parts[0], lengths=LENGTHS)
    return y, list(last) if spec.kind == "lstm" else [last]


def layer_states(graph: Graph, spec: Any, states: list[Any]) -> list[np.ndarray]:
    """h and, of an LSTM, c, (L*D, B, .) each, of the states of all cells."""
    half = len(states) // 2
    if graph.driver == "stack":  # forward cells come first
        states = [states[k // 2 + half * (k % 2)] for k in range(len(states))]
    cells = [leaf for state in states for leaf in _cell_states(state, spec)]
    if spec.kind == "lstm":
        return [np.stack([h for _, h in cells]), np.stack([c for c, _ in cells])]
    return [np.stack(cells)]


def _cell_states(state: Any, spec: Any) -> Iterator[Any]:
    """The state of each cell: (c, h), or an array."""
    if isinstance(state, np.ndarray):
        H = spec.hidden_size
        yield (state[:, :H], state[:, H:]) if spec.kind == "lstm" else state  # c and h side by side
    elif spec.kind == "lstm" and len(state) == 2 and all(isinstance(part, np.ndarray) for part in state):
        yield state
    else:
        for part in state:
            yield from _cell_states(part, spec)
