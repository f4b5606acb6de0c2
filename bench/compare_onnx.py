"""Compare random LSTM, GRU and RNN nodes of ONNX with onnxruntime, over all attributes.

    python bench/compare_onnx.py --models 2000 --seed 0     # the exit status is 1 where a model differs

Every model is a file that ``fastrnn.load`` reads: an opset from 7 to the newest, weights behind chains of nodes, some
outputs missing. tests/test_onnx_nodes.py runs a few of the same models. What onnxruntime does not do, or does against
the standard (docs/frameworks.md), is avoided in its copy of a model, and compared with the reference alone.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

import fastrnn
from fastrnn import reference
from fastrnn.importers.onnx import spec_from_node

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
FUNCTIONS = {"LSTM": 3, "GRU": 2, "RNN": 1}

#: ONNX's activations with ranges of alpha and beta; those that grow without bound have small slopes.
ACTIVATIONS: dict[str, tuple[tuple[float, float] | None, tuple[float, float] | None]] = {
    "Affine": ((0.1, 0.6), (-0.5, 0.5)),
    "Elu": ((0.2, 1.5), None),
    "HardSigmoid": ((0.1, 0.4), (0.3, 0.6)),
    "LeakyRelu": ((0.01, 0.5), None),
    "Relu": (None, None),
    "ScaledTanh": ((0.2, 1.2), (0.3, 1.2)),
    "Sigmoid": (None, None),
    "Softplus": (None, None),
    "Softsign": (None, None),
    "Tanh": (None, None),
    "ThresholdedRelu": ((0.1, 0.6), None),
}

#: Those that need a clip, because gates beyond 1 would let the states grow at every step.
UNBOUNDED = {"Affine", "Elu", "LeakyRelu", "Relu", "Softplus", "ThresholdedRelu"}

#: Largest differences, absolute up to 1 and relative beyond.
TOLERANCE = 2e-5


@dataclass
class Node:
    """A node with its arrays.

    Attributes
    ----------
    op, opset, attributes : the node's; layout is left out
    weights : W, R, B and P
    x : (T, B, I)
    lengths : (B,) or None
    states : initial_h and initial_c (D, B, H), those that are given
    outputs : which of Y, Y_h, Y_c there are
    layout : 0 or 1
    """

    op: str
    opset: int
    attributes: dict[str, Any]
    weights: dict[str, np.ndarray]
    x: np.ndarray
    lengths: np.ndarray | None
    states: dict[str, np.ndarray]
    outputs: list[str]
    layout: int
    expected: dict[str, np.ndarray] = field(default_factory=dict)


def draw(rng: np.random.Generator) -> Node:
    """A random node; onnxruntime takes one with layout 0."""
    op = str(rng.choice(["LSTM", "GRU", "RNN"]))
    opset = int(rng.integers(7, onnx.defs.onnx_opset_version() + 1))
    T, B, I, H = (int(size) for size in rng.integers(1, (9, 7, 20, 34)))  # noqa: E741
    direction = str(rng.choice(["forward", "reverse", "bidirectional"]))
    D = 2 if direction == "bidirectional" else 1
    G = GATES[op]

    def weight(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) * 0.4 / np.sqrt(max(shape[-1], 4) / 8)).astype(np.float32)

    attributes: dict[str, Any] = {} if rng.random() < 0.1 else {"hidden_size": H}
    if direction != "forward" or rng.random() < 0.5:
        attributes["direction"] = direction
    if rng.random() < 0.3:
        attributes["clip"] = float(np.float32(rng.uniform(0.2, 3)))
    if rng.random() < 0.5:
        names = [str(name) for name in rng.choice(list(ACTIVATIONS), FUNCTIONS[op] * D)]
        attributes |= _with_parameters([_in_some_case(name, rng) for name in names], rng)
        if UNBOUNDED.intersection(names):
            attributes["clip"] = float(np.float32(rng.uniform(0.2, 0.9)))
    if op == "GRU" and rng.random() < 0.6:
        attributes["linear_before_reset"] = int(rng.integers(0, 2))
    if op == "LSTM" and rng.random() < 0.3:
        attributes["input_forget"] = int(rng.integers(0, 2))
    weights = {"W": weight(D, G * H, I), "R": weight(D, G * H, H)}
    if rng.random() < 0.8:
        weights["B"] = weight(D, 2 * G * H)
    if op == "LSTM" and rng.random() < 0.4:
        weights["P"] = weight(D, 3 * H)
    states = {}
    for name in ("initial_h", "initial_c")[: 2 if op == "LSTM" else 1]:
        if rng.random() < 0.5:
            states[name] = rng.uniform(-1, 1, (D, B, H)).astype(np.float32)
    kinds = ["Y", "Y_h", "Y_c"][: 3 if op == "LSTM" else 2]
    outputs = [name for name in kinds if rng.random() < 0.7] or [str(rng.choice(kinds))]
    lengths = rng.integers(0, T + 1, B).astype(np.int32) if rng.random() < 0.6 else None
    x = rng.standard_normal((T, B, I)).astype(np.float32)
    layout = int(opset >= 14 and rng.random() < 0.4)
    return Node(op, opset, attributes, weights, x, lengths, states, outputs, layout)


def _in_some_case(name: str, rng: np.random.Generator) -> str:
    return [name, name.lower(), name.upper()][int(rng.choice(3, p=[0.7, 0.2, 0.1]))]


def _with_parameters(names: list[str], rng: np.random.Generator) -> dict[str, Any]:
    """Attributes of activations. Parameters at the end are left out where both engines have the same defaults."""
    given: dict[str, list[float]] = {"activation_alpha": [], "activation_beta": []}
    ranges = {name.lower(): both for name, both in ACTIVATIONS.items()}
    takers = [[name for name in names if ranges[name.lower()][which]] for which in (0, 1)]
    for which, attribute in enumerate(given):
        for name in takers[which]:
            low, high = ranges[name.lower()][which]  # type: ignore[misc]
            given[attribute].append(float(np.float32(rng.uniform(low, high))))
    shared = {"elu", "hardsigmoid", "leakyrelu"}
    if rng.random() < 0.4:
        while takers[0] and takers[0][-1].lower() in shared:
            takers[0].pop()
            given["activation_alpha"].pop()
    return {"activations": names} | {name: numbers for name, numbers in given.items() if numbers}


def write(node: Node, rng: np.random.Generator | None, layout: int) -> onnx.ModelProto:
    """The node as a model: with chains of constants if `rng` is given, plainly for onnxruntime otherwise."""
    constants: dict[str, np.ndarray] = {}
    nodes: list[onnx.NodeProto] = []
    for name, array in node.weights.items():
        if rng is None:
            constants[name] = array
        else:
            _spell(name, array, node.opset, rng, constants, nodes)
    inputs = ["X", "W", "R", *(name if name in node.weights else "" for name in ("B",))]
    inputs.append("sequence_lens" if node.lengths is not None else "")
    inputs += [name if name in node.states else "" for name in ("initial_h", "initial_c")]
    inputs.append("P" if "P" in node.weights else "")
    inputs = inputs if node.op == "LSTM" else inputs[:6]
    while not inputs[-1]:
        inputs.pop()
    kinds = ("Y", "Y_h", "Y_c")[: 3 if node.op == "LSTM" else 2]
    outputs = [name if name in node.outputs else "" for name in kinds]
    while not outputs[-1]:
        outputs.pop()
    attributes = node.attributes | ({"layout": layout} if layout else {})
    if rng is None:
        attributes["hidden_size"] = node.weights["R"].shape[2]  # onnxruntime takes it for required
        spelled = {name.lower(): name for name in ACTIVATIONS}  # its RNN knows no other spelling
        if "activations" in attributes:
            attributes["activations"] = [spelled[name.lower()] for name in attributes["activations"]]
    nodes.append(helper.make_node(node.op, inputs, outputs, name="rnn", **attributes))
    f32, i32 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT32
    feeds = [helper.make_tensor_value_info("X", f32, [None, None, node.x.shape[2]])]
    if node.lengths is not None:
        feeds.append(helper.make_tensor_value_info("sequence_lens", i32, [None]))
    feeds += [helper.make_tensor_value_info(name, f32, [None] * 3) for name in node.states]
    gives = [helper.make_tensor_value_info(name, f32, None) for name in node.outputs]
    tensors = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "random", feeds, gives, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", node.opset)], ir_version=8)


def _spell(
    name: str,
    array: np.ndarray,
    opset: int,
    rng: np.random.Generator,
    constants: dict[str, np.ndarray],
    nodes: list[onnx.NodeProto],
) -> None:
    """Write a weight as an initializer or as what exporters put in front of one."""

    def integers(suffix: str, *numbers: int) -> str:
        constants[f"{name}_{suffix}"] = np.array(numbers, np.int64)
        return f"{name}_{suffix}"

    def add(op: str, reads: list[str], **attributes: Any) -> None:
        nodes.append(helper.make_node(op, reads, [name], **attributes))

    def with_axes(op: str, source: str, *axes: int) -> None:
        if opset < 13:
            add(op, [source], axes=list(axes))
        else:
            add(op, [source, integers("axes", *axes)])

    source = f"{name}_0"
    match rng.integers(0, 10):
        case 0:
            constants[name] = array
        case 1:
            add("Constant", [], value=numpy_helper.from_array(array))
        case 2:
            constants[source] = array
            add("Identity", [source])
        case 3:
            perm = [int(axis) for axis in rng.permutation(array.ndim)]
            constants[source] = np.ascontiguousarray(np.transpose(array, np.argsort(perm)))
            add("Transpose", [source], perm=perm)
        case 4:
            parts = np.split(array, sorted(rng.integers(0, array.shape[1] + 1, 2)), axis=1)
            for index, part in enumerate(parts):
                constants[f"{name}_{index}"] = part
            add("Concat", [f"{name}_{index}" for index in range(3)], axis=1)
        case 5:
            constants[source] = array.ravel()
            add("Reshape", [source, integers("shape", *array.shape)])
        case 6:
            constants[source] = np.concatenate([array, array * 2], axis=-1)
            starts, ends = [0], [array.shape[-1]]
            if opset < 10:
                add("Slice", [source], axes=[array.ndim - 1], starts=starts, ends=ends)
            else:
                add("Slice", [source, integers("from", *starts), integers("to", *ends), integers("axis", -1)])
        case 7:
            constants[source] = array[None]
            with_axes("Squeeze", source, 0)
        case 8 if len(array) == 1:
            constants[source] = array[0]
            with_axes("Unsqueeze", source, 0)
        case 9:
            constants[source] = array.astype(np.float64)
            add("Cast", [source], to=onnx.TensorProto.FLOAT)
        case _:
            constants[source] = array[::-1].copy()
            constants[f"{name}_rows"] = np.arange(len(array))[::-1].copy()
            add("Gather", [source, f"{name}_rows"], axis=0)


def feed(node: Node, layout: int) -> dict[str, np.ndarray]:
    swapped = {"X": node.x, **node.states}
    arrays = {name: array.swapaxes(0, 1) if layout else array for name, array in swapped.items()}
    return arrays | ({} if node.lengths is None else {"sequence_lens": node.lengths})


def theirs(node: Node) -> dict[str, np.ndarray]:
    """onnxruntime's outputs in layout 0; a row of length 0 keeps its state, which onnxruntime sets to zero."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    model = write(node, None, 0)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    results = dict(zip(node.outputs, session.run(node.outputs, feed(node, 0)), strict=True))
    if node.lengths is not None:
        for output, state in (("Y_h", "initial_h"), ("Y_c", "initial_c")):
            if output in results and state in node.states:
                results[output][:, node.lengths == 0] = node.states[state][:, node.lengths == 0]
    return results


def by_reference(node: Node) -> dict[str, np.ndarray]:
    """The outputs of the reference, NumPy float64, in layout 0."""
    spec = spec_from_node(node.op, node.attributes, node.weights, opset=node.opset)
    state: Any = node.states.get("initial_h")
    if node.op == "LSTM":
        zeros = np.zeros((spec.num_directions, node.x.shape[1], spec.hidden_size))
        state = (node.states.get("initial_h", zeros), node.states.get("initial_c", zeros))
    y, h, c = reference.run(spec, node.x.swapaxes(0, 1), state, node.lengths)
    B, T, _ = y.shape
    y = y.reshape(B, T, spec.num_directions, spec.hidden_size).transpose(1, 2, 0, 3)
    return {name: value for name, value in (("Y", y), ("Y_h", h), ("Y_c", c)) if name in node.outputs}


def ours(node: Node, rng: np.random.Generator, folder: str) -> dict[str, np.ndarray]:
    """The outputs of the loaded file in layout 0."""
    path = f"{folder}/model.onnx"
    Path(path).write_bytes(write(node, rng, node.layout).SerializeToString())
    results = fastrnn.load(path).run(node.outputs, feed(node, node.layout))
    arrays = dict(zip(node.outputs, results, strict=True))
    if not node.layout:
        return arrays
    return {name: np.moveaxis(array, 0, 2) if name == "Y" else array.swapaxes(0, 1) for name, array in arrays.items()}


def difference(left: np.ndarray, right: np.ndarray) -> float:
    if left.shape != right.shape:
        return np.inf
    error = np.abs(left.astype(np.float64) - right) / np.maximum(1, np.abs(right))
    return float(np.nan_to_num(error, nan=np.inf).max(initial=0))


def compare(seed: int, folder: str) -> tuple[Node, float, float]:
    """A random node, and our largest differences from onnxruntime and from the reference."""
    rng = np.random.default_rng(seed)
    node = draw(rng)
    found, there, exact = ours(node, rng, folder), theirs(node), by_reference(node)
    return (
        node,
        max(difference(found[name], there[name]) for name in found),
        max(difference(found[name], exact[name]) for name in found),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare random recurrent nodes with onnxruntime.")
    parser.add_argument("--models", type=int, default=2000, help="how many (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the first one (default: %(default)s)")
    options = parser.parse_args()
    differing, largest, largest_exact = 0, 0.0, 0.0
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(options.seed, options.seed + options.models):
            node, there, exact = compare(seed, folder)
            largest, largest_exact = max(largest, there), max(largest_exact, exact)
            if max(there, exact) > TOLERANCE:
                differing += 1
                shown = {name: array.shape for name, array in node.weights.items()}
                lengths = None if node.lengths is None else node.lengths.tolist()
                print(f"seed {seed}: onnxruntime {there:.3g}, reference {exact:.3g}: {node.op} {node.opset}", end=" ")
                print(f"{node.attributes} {shown} x {node.x.shape} lengths {lengths} {[*node.states]} {node.outputs}")
    print(f"{options.models} models, {differing} differ by more than {TOLERANCE:g}")
    print(f"largest difference from onnxruntime {largest:.3g}, from the reference {largest_exact:.3g}")
    sys.exit(differing > 0)


if __name__ == "__main__":
    main()
