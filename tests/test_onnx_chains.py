"""Graphs of ONNX that are chains: a Sequential with the graph's names, or with states a model that runs here whole."""

import copy
import io
import pickle
import tarfile
import warnings
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import onnx_cases as cases  # noqa: E402
from onnx_cases import node, port  # noqa: E402

import fastrnn  # noqa: E402
from fastrnn.models.spec import op_name  # noqa: E402

EXPORTED = Path(__file__).parent / "golden" / "onnx_files.tar.xz"

TAGGER = ["Embedding", "LSTM", "LayerNorm", "Linear", "LogSoftmax"]
POOLED = {
    name: ["Embedding", "LSTM", op, "Linear", "LogSoftmax"]
    for name, op in (("classifier", "Final"), ("mean", "Mean"), ("max", "Max"))
}
CONVOLUTION = ["Embedding", "Conv1d", "relu", "LSTM", "Last", "Linear", "LogSoftmax"]

#: What the files of exporters are loaded as: the operations of a Sequential, or the engines of a Model's parts.
FILES = {
    "keras-backwards": ["Reverse", "LSTM"],
    "keras-bidirectional": ["LSTM"],
    "keras-classifier": ["Embedding", "LSTM", "Last", "Linear", "relu", "Linear"],
    "keras-lstm-last": ["LSTM", "Last"],
    "keras-tagger": ["Embedding", "LSTM", "Linear", "Softmax"],
    "torch-gru-steps-first": ("fastrnn", "onnxruntime"),  # traced with a fixed number of steps
    **{f"torch-{name}": ops for name, ops in POOLED.items()},
    **{f"torchscript-{name}": ops for name, ops in POOLED.items()},
    **{f"{exporter}-tagger": TAGGER for exporter in ("torch", "torchscript")},
    **{f"{exporter}-last": CONVOLUTION for exporter in ("torch", "torchscript")},
    **{f"torch-{name}": ("fastrnn",) for name in ("gru", "lstm")},
    **{
        f"torchscript-{name}": ("fastrnn",)
        for name in ("gru", "gru-states", "gru-steps-first", "lstm", "lstm-states", "lstm-steps-first", "packed", "rnn")
    },
}


def structure(model):
    if isinstance(model, fastrnn.Sequential):
        return [op_name(op) for op in model.spec.ops]
    return tuple(part.engine for part in model.parts)


def feed_of(model, arrays):
    return dict(zip([port.name for port in model.inputs], arrays, strict=True))


@pytest.fixture(scope="module")
def exported():
    """The stored files and arrays of the exporters, by name."""
    with tarfile.open(EXPORTED) as archive:
        members = {member.name: archive.extractfile(member).read() for member in archive.getmembers()}
    names = [name.removesuffix(".onnx") for name in members if name.endswith(".onnx")]
    return {name: (members[f"{name}.onnx"], np.load(io.BytesIO(members[f"{name}.npz"]))) for name in names}


def test_all_files_are_listed(exported):
    assert exported.keys() == FILES.keys()


@pytest.mark.parametrize("name", FILES)
def test_files_of_exporters(tmp_path, exported, name):
    data, stored = exported[name]
    model = cases.load(tmp_path, data)
    assert structure(model) == FILES[name]
    inputs, outputs = ([stored[key] for key in stored if key.startswith(kind)] for kind in ("in", "out"))
    cases.agree(model.run(None, feed_of(model, inputs)), outputs)
    for output, answer in zip(model.outputs, outputs, strict=True):
        cases.agree(model.run([output.name], feed_of(model, inputs)), [answer])
    if isinstance(model, fastrnn.Sequential):
        check_rows(model, inputs[0])
    if name.endswith("-states"):
        check_states(model, inputs)


def check_rows(model, x):
    """Rows of unequal lengths are what the graph makes of them alone."""
    assert model.batch_first
    cases.agree([model(x)], model.run(None, feed_of(model, [x])), 0)
    lengths = [2, 6, 1]
    y = model(x, lengths=lengths)
    for row, length in enumerate(lengths):
        (alone,) = model.run(None, feed_of(model, [x[row : row + 1, :length]]))
        assert np.array_equal(y[row] if model.pools else y[row, :length], alone[0])


def check_states(model, inputs):
    """An initial state that is left out is zero."""
    full = feed_of(model, inputs)
    for name in list(full)[1:]:
        part = {key: value for key, value in full.items() if key != name}
        zero = full | {name: np.zeros_like(full[name])}
        cases.agree(model.run(None, part), model.run(None, zero), 0)
    cases.agree(model(inputs[0]), model.run(None, {"in0": inputs[0]}), 0)


@pytest.mark.slow
def test_pytorch_live(tmp_path):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    module = torch.nn.GRU(4, 3, 2, bidirectional=True, batch_first=True).eval()
    x = torch.randn(5, 7, 4)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        answers = module(x)
        torch.onnx.export(module, (x,), tmp_path / "model.onnx", dynamo=False, input_names=["x"])
    model = fastrnn.load(tmp_path / "model.onnx")
    cases.agree(model.run(None, {"x": x.numpy()}), [answer.numpy() for answer in answers])


class Graph:
    """A graph under construction: `last` is the name that the next node reads."""

    def __init__(self, rng, opset=17, inputs=4, hidden=3):
        self.rng, self.opset, self.width, self.hidden = rng, opset, inputs, hidden
        self.nodes, self.tensors, self.last = [], {}, "x"

    def constant(self, array, dtype=np.float32):
        name = f"t{len(self.tensors)}"
        self.tensors[name] = np.asarray(array, dtype)
        return name

    def draw(self, *shape):
        return self.constant(self.rng.uniform(0.2, 1, shape) * self.rng.choice([-1, 1], shape))

    def add(self, op, *others, first=True, **attributes):
        name = f"v{len(self.nodes)}"
        reads = [self.last, *others] if first else [*others, self.last]
        self.nodes.append(node(op, reads, [name], **attributes))
        self.last = name
        return self

    def with_axes(self, op, axes, since=13, **attributes):
        """A node whose axes are an attribute up to an opset, and an input from there on."""
        if self.opset < since:
            return self.add(op, axes=axes, **attributes)
        return self.add(op, self.constant(axes, np.int64), **attributes)

    def take(self, starts, ends, axis, step=None):
        others = [self.constant([number], np.int64) for number in (starts, ends, axis)]
        return self.add("Slice", *others, *([self.constant([step], np.int64)] if step else []))

    def layer(self, op="LSTM", squeeze=True, source=None, **attributes):
        """A recurrent node on (T, B, I), and its first output without the axis of directions."""
        directions = 2 if attributes.get("direction") == "bidirectional" else 1
        found = cases.weights(self.rng, op, self.width, self.hidden, directions)
        names = [self.constant(array) for array in found.values()]
        outputs = [f"v{len(self.nodes)}", f"h{len(self.nodes)}"]
        self.nodes.append(node(op, [source or self.last, *names], outputs, hidden_size=self.hidden, **attributes))
        self.last, self.final = outputs
        self.width = directions * self.hidden
        if squeeze and directions == 1:
            self.with_axes("Squeeze", [2 if attributes.get("layout") else 1])
        elif squeeze:
            self.add("Transpose", perm=[0, 2, 1, 3]).add("Reshape", self.constant([0, 0, -1], np.int64))
        return self

    def model(self, shape=("T", "B", 4), dtype=np.float32):
        return cases.model(self.nodes, [port("x", shape, dtype)], [self.last], self.tensors, self.opset)


def _norm_of_nodes(graph):
    x = graph.last
    mean = graph.with_axes("ReduceMean", [-1], 18).last
    graph.last = x
    centered = graph.add("Sub", mean).last
    graph.add("Pow", graph.constant(2.0)).with_axes("ReduceMean", [-1], 18).add("Add", graph.constant(1e-3)).add("Sqrt")
    deviation, graph.last = graph.last, centered
    return graph.add("Div", deviation).add("Mul", graph.draw(3)).add("Add", graph.draw(3))


def _two_nodes(graph):
    forward = graph.layer("GRU").last
    graph.last, graph.width = "x", 4
    graph.layer("GRU", direction="reverse")
    return graph.add("Concat", forward, first=False, axis=2)


def _halves(graph):
    y = graph.layer("LSTM", squeeze=False, direction="bidirectional").last
    parts = []
    for start in (0, 1):
        graph.last = y
        parts.append(graph.take(start, start + 1, 1).with_axes("Squeeze", [1]).last)
    graph.last = parts[1]
    return graph.add("Concat", parts[0], first=False, axis=-1)


def _final(graph, op="LSTM", direction="bidirectional"):
    graph.layer(op, squeeze=False, direction=direction)
    graph.last = graph.final
    return graph


def _flat(graph):
    """As Keras writes a Dense: rows and steps joined, and their sizes out of a Shape."""
    y = graph.layer().last
    sizes = graph.add("Shape").add("Gather", graph.constant([0, 1], np.int64)).last
    graph.with_axes("ReduceProd", [0], 18, keepdims=1)
    target = graph.add("Concat", graph.constant([3], np.int64), axis=0).last
    graph.last = y
    graph.add("Reshape", target).add("MatMul", graph.draw(3, 5))
    matmul, graph.last = graph.last, sizes
    back = graph.add("Concat", graph.constant([5], np.int64), axis=0).last
    graph.last = matmul
    return graph.add("Reshape", back)


def _conv(graph, kernel=3, **attributes):
    """On (T, B, I): steps last, a convolution, and back."""
    graph.add("Transpose", perm=[1, 2, 0]).add("Conv", graph.draw(5, 4, kernel), graph.draw(5), **attributes)
    graph.width = 5
    return graph.add("Transpose", perm=[2, 0, 1]).layer()


def _conv_of_four_axes(graph):
    graph.add("Transpose", perm=[1, 2, 0]).with_axes("Unsqueeze", [2])
    graph.add("Conv", graph.draw(5, 4, 1, 3), pads=[0, 1, 0, 1]).with_axes("Squeeze", [2])
    graph.width = 5
    return graph.add("Transpose", perm=[2, 0, 1]).layer()


def _padded_conv(graph):
    graph.add("Transpose", perm=[1, 2, 0]).add("Pad", graph.constant([0, 0, 4, 0, 0, 0], np.int64))
    graph.add("Conv", graph.draw(5, 4, 3), dilations=[2])
    graph.width = 5
    return graph.add("Transpose", perm=[2, 0, 1]).layer()


def _batch_norm(graph):
    graph.add("Transpose", perm=[1, 2, 0])
    positive = [graph.draw(4), graph.draw(4), graph.draw(4), graph.constant([0.5, 1.0, 2.0, 3.0])]
    return graph.add("BatchNormalization", *positive, epsilon=1e-3).add("Transpose", perm=[2, 0, 1]).layer()


LAYER = ["LSTM"]

#: Names -> how a graph goes on, and the operations that it must become; the input is (T, B, 4).
CHAINS = {
    "layer": (lambda g: g.layer(squeeze=False), LAYER),
    "two layers": (lambda g: g.layer().layer("RNN", direction="reverse"), ["LSTM", "RNN"]),
    "both directions": (lambda g: g.layer(direction="bidirectional", squeeze=False), LAYER),
    "rows first": (lambda g: g.layer().add("Transpose", perm=[1, 0, 2]), LAYER),
    "width first": (lambda g: g.layer(direction="bidirectional").add("Transpose", perm=[2, 1, 0]), LAYER),
    "activations": (
        lambda g: g.layer().add("LeakyRelu", alpha=0.3).add("HardSigmoid"),
        ["LSTM", "leaky_relu", "hard_sigmoid"],
    ),
    "more activations": (
        lambda g: g.layer().add("Elu").add("Softplus").add("Softsign").add("ThresholdedRelu", alpha=0.1).add("Sigmoid"),
        ["LSTM", "elu", "softplus", "softsign", "thresholded_relu", "sigmoid"],
    ),
    "linear": (lambda g: g.layer().add("MatMul", g.draw(3, 5)).add("Add", g.draw(5)), ["LSTM", "Linear"]),
    "linear, bias first": (
        lambda g: g.layer().add("MatMul", g.draw(3, 5)).add("Add", g.draw(1, 1, 5), first=False),
        ["LSTM", "Linear"],
    ),
    "sums and products": (
        lambda g: (
            g.layer()
            .add("Add", g.draw(3))
            .add("Mul", g.draw(1))
            .add("Sub", g.draw(3), first=False)
            .add("Div", g.draw(3))
            .add("Sub", g.draw(1, 3))
        ),
        ["LSTM", "Scale"],
    ),
    "dropout": (lambda g: g.layer().add("Dropout").add("Identity").add("Cast", to=1), LAYER),
    "softmax": (lambda g: g.layer().add("Softmax"), ["LSTM", "Softmax"]),
    "log softmax": (
        lambda g: g.layer().add("Transpose", perm=[1, 2, 0]).add("LogSoftmax", axis=1),
        ["LSTM", "LogSoftmax"],
    ),
    "layer norm": (
        lambda g: g.layer().add("LayerNormalization", g.draw(3), g.draw(3), epsilon=1e-3),
        ["LSTM", "LayerNorm"],
    ),
    "layer norm of nodes": (lambda g: _norm_of_nodes(g.layer()), ["LSTM", "LayerNorm"]),
    "batch norm": (_batch_norm, ["LSTM"]),
    "convolution": (lambda g: _conv(g, pads=[1, 2], strides=[2]), ["Conv1d", "LSTM"]),
    "dilated convolution": (lambda g: _conv(g, dilations=[2], pads=[4, 0]), ["Conv1d", "LSTM"]),
    "convolution of the same size": (lambda g: _conv(g, 4, auto_pad="SAME_UPPER"), ["Conv1d", "LSTM"]),
    "convolution, more before": (lambda g: _conv(g, 4, auto_pad="SAME_LOWER"), ["Conv1d", "LSTM"]),
    "convolution of four axes": (_conv_of_four_axes, ["Conv1d", "LSTM"]),
    "padded convolution": (_padded_conv, ["Conv1d", "LSTM"]),
    "last": (
        lambda g: (
            g.layer().add("Gather", g.constant(-1, np.int64), axis=0).add("Gemm", g.draw(5, 3), g.draw(5), transB=1)
        ),
        ["LSTM", "Last", "Linear"],
    ),
    "last, the axis kept": (lambda g: g.layer().take(-1, 1 << 40, 0), ["LSTM", "Last"]),
    "first": (
        lambda g: g.layer().add("Gather", g.constant([0], np.int64), axis=0).add("Flatten", axis=2),
        ["LSTM", "First"],
    ),
    "mean": (lambda g: g.layer().with_axes("ReduceMean", [0], 18, keepdims=0), ["LSTM", "Mean"]),
    "maximum": (
        lambda g: g.layer(direction="bidirectional", squeeze=False).with_axes("ReduceMax", [0], 18, keepdims=0),
        ["LSTM", "Max"],
    ),
    "maximum over an axis of size 1, too": (
        lambda g: g.layer(squeeze=False).with_axes("ReduceMax", [0, 1], 18, keepdims=0),
        ["LSTM", "Max"],
    ),
    "average over an axis of size 1, too": (
        lambda g: g.layer(squeeze=False).with_axes("ReduceMean", [-4, 1], 18).with_axes("Squeeze", [1]),
        ["LSTM", "Mean"],
    ),
    "global average": (
        lambda g: g.layer().add("Transpose", perm=[1, 2, 0]).add("GlobalAveragePool").add("Flatten"),
        ["LSTM", "Mean"],
    ),
    "global maximum": (lambda g: g.layer().add("Transpose", perm=[1, 2, 0]).add("GlobalMaxPool"), ["LSTM", "Max"]),
    "an axis of size 1 reversed": (
        lambda g: g.layer(squeeze=False).take(-1, -(1 << 40), 1, -1).with_axes("Squeeze", [1]).take(-1, 1 << 40, 0),
        ["LSTM", "Last"],
    ),
    "reversed": (lambda g: g.take(-1, -(1 << 40), 0, -1).layer(), ["Reverse", "LSTM"]),
    "final": (
        lambda g: (
            _final(g, direction="forward").with_axes("Squeeze", [0]).add("Gemm", g.draw(3, 5), alpha=0.5, beta=2.0)
        ),
        ["LSTM", "Final", "Linear"],
    ),
    "final of the reverse direction": (lambda g: _final(g, direction="reverse"), ["LSTM", "Final"]),
    "final, directions as an axis": (lambda g: _final(g), ["LSTM", "Final"]),
    "final, directions joined": (
        lambda g: (
            _final(g, "GRU")
            .add("Transpose", perm=[1, 0, 2])
            .add("Reshape", g.constant([0, 6], np.int64))
            .add("MatMul", g.draw(6, 2))
        ),
        ["GRU", "Final", "Linear"],
    ),
    "two nodes": (_two_nodes, ["GRU"]),
    "halves": (_halves, LAYER),
    "rows and steps joined": (_flat, ["LSTM", "Linear"]),
    "one axis for rows and steps": (lambda g: g.layer().add("Reshape", g.constant([-1, 3], np.int64)), LAYER),
}


@pytest.mark.parametrize("opset", [11, 18])
@pytest.mark.parametrize("name", CHAINS)
def test_chain(tmp_path, rng, name, opset):
    """Against onnxruntime, as a whole and row by row, also on rows of unequal lengths."""
    if (opset < 17 and name == "layer norm") or (opset < 13 and name == "log softmax"):
        pytest.skip("newer than that opset, or over more than one axis there")
    build, ops = CHAINS[name]
    made = build(Graph(rng, opset)).model()
    if opset < 13:
        softmax = [one for one in made.graph.node if one.op_type == "Softmax"]
        for one in softmax:
            one.attribute.append(onnx.helper.make_attribute("axis", 2))
    model = cases.load(tmp_path, made)
    assert structure(model) == ops and not model.batch_first
    x = rng.standard_normal((7, 5, 4)).astype("f4")
    whole = cases.theirs(made, {"x": x})
    cases.agree(model.run(None, {"x": x}), whole)
    lengths = [7, 1, 3, 7, 5]
    y = model(x, lengths=lengths)
    for row, length in enumerate(lengths):
        (alone,) = model.run(None, {"x": x[:length, row : row + 1]})
        cases.agree([alone], cases.theirs(made, {"x": x[:length, row : row + 1]}))
        found = y[row] if model.pools else y[: model.output_steps(length), row]
        assert np.array_equal(np.sort(found.ravel()), np.sort(alone.ravel()))


@pytest.mark.parametrize("dtype", ["i4", "i8", "f4"])
def test_ids(tmp_path, rng, dtype):
    """Also as numbers of float32 that a Cast makes integers, as older Keras has it."""
    graph = Graph(rng)
    if dtype == "f4":
        graph.add("Cast", to=onnx.TensorProto.INT32)
    graph.add("Gather", graph.draw(20, 4), first=False).add("Transpose", perm=[1, 0, 2]).layer("GRU")
    made = graph.model(("B", "T"), np.dtype(dtype))
    model = cases.load(tmp_path, made)
    assert structure(model) == ["Embedding", "GRU"] and model.batch_first and model.num_ids == 20
    ids = rng.integers(0, 20, (5, 7))
    y = model(ids)
    cases.agree(model.run(None, {"x": ids.astype(dtype)}), cases.theirs(made, {"x": ids.astype(dtype)}))
    assert np.array_equal(y.swapaxes(0, 1), model.run(None, {"x": ids.astype(dtype)})[0])
    with pytest.raises(ValueError, match=r"-1"):
        model.run(None, {"x": (ids * 0 - 1).astype(dtype)})


@pytest.mark.parametrize("width", [4, None])
def test_width_first_in_the_input(tmp_path, rng, width):
    graph = Graph(rng).add("Transpose", perm=[2, 0, 1])
    made = graph.layer().add("Transpose", perm=[1, 2, 0]).model(("B", width, "T"))
    model = cases.load(tmp_path, made)
    x = rng.standard_normal((5, 4, 7)).astype("f4")
    cases.agree(model.run(None, {"x": x}), cases.theirs(made, {"x": x}))
    assert model.batch_first and np.array_equal(model(x.swapaxes(1, 2)).swapaxes(1, 2), model.run(None, {"x": x})[0])


def test_one_sequence_without_rows(tmp_path, rng):
    made = Graph(rng).with_axes("Unsqueeze", [1]).layer().with_axes("Squeeze", [1]).model(("T", 4))
    model = cases.load(tmp_path, made)
    x = rng.standard_normal((7, 4)).astype("f4")
    cases.agree(model.run(None, {"x": x}), cases.theirs(made, {"x": x}))
    assert np.array_equal(model(x), model.run(None, {"x": x})[0])


def test_layout_1(tmp_path, rng):
    """Compared with layout 0 in onnxruntime, which has no other; with states."""
    tensors = cases.weights(rng, "LSTM", 4, 3, 2)
    results = []
    x, h0, c0 = (rng.standard_normal(shape).astype("f4") for shape in ((5, 7, 4), (5, 2, 3), (5, 2, 3)))
    for layout in (0, 1):
        nodes = [
            node(
                "LSTM",
                ["x", "W", "R", "B", "", "h0", "c0"],
                ["y", "hn", "cn"],
                layout=layout,
                hidden_size=3,
                direction="bidirectional",
            ),
            node("Relu", ["y"], ["z"]),
        ]
        ports = [port("x", ["B", "T", 4] if layout else ["T", "B", 4])]
        ports += [port(name, ["B", 2, 3] if layout else [2, "B", 3]) for name in ("h0", "c0")]
        made = cases.model(nodes, ports, ["z", "hn", "cn"], tensors)
        model = cases.load(tmp_path, made)
        assert structure(model) == ("fastrnn",)
        feed = {"x": x, "h0": h0, "c0": c0}
        feed = feed if layout else {name: array.swapaxes(0, 1) for name, array in feed.items()}
        results.append(model.run(None, feed))
        if not layout:
            cases.agree(results[0], cases.theirs(made, {name: array.copy() for name, array in feed.items()}))
    (z, h, c), rows_first = results
    assert np.array_equal(z.transpose(2, 0, 1, 3), rows_first[0])
    assert np.array_equal(h.swapaxes(0, 1), rows_first[1]) and np.array_equal(c.swapaxes(0, 1), rows_first[2])


def streaming(rng, final=False):
    """Linear, two LSTMs with states, Linear and Softmax; the states of both layers are joined."""
    graph = Graph(rng)
    graph.add("MatMul", graph.draw(4, 4)).add("Tanh")
    h, c = [], []
    for layer in (0, 1):
        parts = []
        x = graph.last
        for name in ("h0", "c0"):
            graph.last = name
            parts.append(graph.take(layer, layer + 1, 0).last)
        found = cases.weights(rng, "LSTM", graph.width, 3)
        names = [graph.constant(array) for array in found.values()]
        outputs = [f"y{layer}", f"hn{layer}", f"cn{layer}"]
        graph.nodes.append(node("LSTM", [x, *names, "", *parts], outputs, hidden_size=3))
        graph.last, graph.width = outputs[0], 3
        h.append(outputs[1])
        c.append(outputs[2])
        graph.with_axes("Squeeze", [1])
    if final:
        graph.last = h[1]
        graph.with_axes("Squeeze", [0])
    graph.add("MatMul", graph.draw(3, 5)).add("Softmax")
    graph.nodes += [node("Concat", h, ["hn"], axis=0), node("Concat", c, ["cn"], axis=0)]
    ports = [port("x", ["T", "B", 4]), port("h0", [2, "B", 3]), port("c0", [2, "B", 3])]
    return cases.model(graph.nodes, ports, [graph.last, "hn", "cn"], graph.tensors)


@pytest.mark.parametrize("sizes", [None, [2, 2], [1, 3]])
def test_states_that_a_split_divides(tmp_path, rng, sizes):
    """Into equal parts where the node has no sizes."""
    graph = Graph(rng)
    graph.nodes.append(
        node("Split", ["h0", *([] if sizes is None else [graph.constant(sizes, np.int64)])], ["a", "b"], axis=0)
    )
    for part in "ab":
        found = cases.weights(rng, "GRU", graph.width, 3, 2)
        names = [graph.constant(array) for array in found.values()]
        reads = [graph.last, *names, "", part]
        graph.nodes.append(node("GRU", reads, [f"y{part}"], hidden_size=3, direction="bidirectional"))
        graph.last, graph.width = f"y{part}", 6
        graph.add("Transpose", perm=[0, 2, 1, 3]).add("Reshape", graph.constant([0, 0, -1], np.int64))
    made = cases.model(graph.nodes, [port("x", ["T", "B", 4]), port("h0", [4, "B", 3])], [graph.last], graph.tensors)
    model = cases.load(tmp_path, made)
    x, h0 = rng.standard_normal((7, 5, 4)).astype("f4"), rng.standard_normal((4, 5, 3)).astype("f4")
    if sizes == [1, 3]:
        assert "has an initial_h of other axes" in model.why_not_sequential
        return
    assert structure(model) == ("fastrnn",)
    cases.agree(model.run(None, {"x": x, "h0": h0}), cases.theirs(made, {"x": x, "h0": h0}))


@pytest.mark.parametrize("name", ["torchscript-tagger", "torchscript-gru-states", "torchscript-lstm"])
def test_inputs_of_other_shapes(tmp_path, exported, name):
    """A missing axis is not taken for one sequence, and a surplus of states is not left aside."""
    data, stored = exported[name]
    model = cases.load(tmp_path, data)
    feed = feed_of(model, [stored[key] for key in stored if key.startswith("in")])
    x = feed["in0"]
    for wrong in (x[0], x[None], np.zeros((), x.dtype)):
        with pytest.raises(ValueError, match=r"feed has 'in0' of shape \("):
            model.run(None, feed | {"in0": wrong})
    if "in1" in feed:
        h = feed["in1"]
        for wrong in (h[0], h[:1], np.concatenate([h, h]), h[..., :-1]):
            with pytest.raises(ValueError, match=r"feed has 'in1' of shape .* wanted \(2, rows, 4\)"):
                model.run(None, feed | {"in1": wrong})
    strided = {key: np.repeat(array, 2, -1)[..., ::2] for key, array in feed.items()}
    cases.agree(model.run(None, strided), model.run(None, feed), 0)


@pytest.mark.parametrize("final", [False, True])
def test_states_as_inputs_and_outputs(tmp_path, rng, final):
    made = streaming(rng, final)
    model = cases.load(tmp_path, made)
    assert structure(model) == ("fastrnn",) and len(model.parts[0].nodes) == len(made.graph.node)
    feed = {
        "x": rng.standard_normal((7, 5, 4)).astype("f4"),
        "h0": rng.standard_normal((2, 5, 3)).astype("f4"),
        "c0": rng.standard_normal((2, 5, 3)).astype("f4"),
    }
    whole = model.run(None, feed)
    cases.agree(whole, cases.theirs(made, feed))
    h, c = feed["h0"], feed["c0"]
    for step in range(7):
        y, h, c = model(feed["x"][step : step + 1], h0=h, c0=c)
        assert np.array_equal(y if final else y[0], whole[0] if final and step == 6 else y if final else whole[0][step])
    assert np.array_equal(h, whole[1]) and np.array_equal(c, whole[2])
    with pytest.raises(ValueError, match="lengths is given, but no input"):
        model(feed["x"], lengths=[1] * 5)
    with pytest.raises(ValueError, match=r"x is 'x': state h has shape \(2, 4, 3\), wanted \(2, 5, 3\)"):
        model.run(None, feed | {"h0": h[:, :4]})
    again = pickle.loads(pickle.dumps(model))
    cases.agree(again.run(None, feed), whole, 0)


#: Names -> graphs that are no chains, and why; all the same they run, in parts.
NOT_CHAINS = {
    "another operator": (lambda g: g.layer().add("Sin"), "Sin node 'v2' is none of the layers of a chain"),
    "softmax over steps": (lambda g: g.layer().add("Softmax", axis=0), "is over another axis than that of the vectors"),
    "other numbers at each step": (lambda g: g.layer().add("Add", g.draw(7, 1, 3)), "has other numbers at each step"),
    "a step in the middle": (
        lambda g: g.layer().add("Gather", g.constant(2, np.int64), axis=0),
        "takes a part of the axis of the steps",
    ),
    "some rows": (lambda g: g.layer().take(0, 2, 1), "takes a part of the axis of the batch"),
    "mean over rows": (
        lambda g: g.layer().with_axes("ReduceMean", [1], 18),
        "has another axis in the place of the steps",
    ),
    "residual": (lambda g: g.layer().add("Add", "v1"), "the Add node 'v2' reads 'v1', which is not constant"),
    "one direction of two": (
        lambda g: g.layer(squeeze=False, direction="bidirectional").take(0, 1, 1).add("Relu"),
        "does not read the output of a layer",
    ),
    "grouped convolution": (
        lambda g: (
            g.add("Transpose", perm=[1, 2, 0])
            .add("Conv", g.draw(4, 1, 1), group=4)
            .add("Transpose", perm=[2, 0, 1])
            .layer()
        ),
        "is no plain convolution over steps",
    ),
    "mixed axes": (
        lambda g: g.layer().add("Reshape", g.constant([3, -1], np.int64)),
        "changes the shape in a way that is not known",
    ),
    "padding of another axis": (
        lambda g: g.layer(squeeze=False).add("Pad", g.constant([0, 1, 0, 0, 0, 0, 0, 0], np.int64)),
        "pads another axis than that of the steps",
    ),
    "fill of ones": (
        lambda g: g.add("Pad", g.constant([1, 0, 0, 0, 0, 0], np.int64), g.constant(1.0)).layer(),
        "fills with other numbers than zeros",
    ),
    "squeeze of anything": (
        lambda g: g.layer(squeeze=False).add("Squeeze").layer(),
        "takes away all axes of size 1, whatever they are",
    ),
    "no steps": (lambda g: g.layer().take(-1, 0, 0), "takes a part from -1 to 0 in steps of 1"),
    "dropout in training": (
        lambda g: g.layer().add("Dropout", g.constant(0.0), g.constant(True, np.bool_)),
        "is in training mode",
    ),
    "float64": (lambda g: g.layer().add("Cast", to=onnx.TensorProto.DOUBLE).add("Cast", to=1), "changes the type"),
}


@pytest.mark.parametrize("name", NOT_CHAINS)
def test_no_chain(tmp_path, rng, name):
    build, reason = NOT_CHAINS[name]
    made = build(Graph(rng)).model()
    model = cases.load(tmp_path, made)
    assert isinstance(model, fastrnn.onnx.Model) and reason in model.why_not_sequential
    x = rng.standard_normal((7, 5, 4)).astype("f4")
    cases.agree(model.run(None, {"x": x}), cases.theirs(made, {"x": x}))


def test_outputs_inside_the_chain(tmp_path, rng):
    graph = Graph(rng).layer()
    inner = graph.last
    graph.add("Tanh")
    made = cases.model(graph.nodes, [port("x", ["T", "B", 4])], [graph.last, inner], graph.tensors)
    model = cases.load(tmp_path, made)
    assert f"the output {inner!r} is inside the chain" in model.why_not_sequential
    x = rng.standard_normal((7, 5, 4)).astype("f4")
    cases.agree(model.run(None, {"x": x}), cases.theirs(made, {"x": x}))


@pytest.mark.parametrize("tail", [False, True])
def test_lengths_as_an_input(tmp_path, rng, tail):
    """`run` is the graph, padding included; a call is each row for itself, and zeros past its end."""
    found = cases.weights(rng, "GRU", 4, 3, 2)
    nodes = [
        node("GRU", ["x", *found, "lens"], ["a"], hidden_size=3, direction="bidirectional"),
        node("Transpose", ["a"], ["b"], perm=[0, 2, 1, 3]),
        node("Reshape", ["b", "shape"], ["c"]),
        node("MatMul", ["c", "w"], ["d"]),
        node("Softmax", ["d"], ["y"]),
    ]
    tensors = found | {"shape": np.array([0, 0, -1]), "w": rng.standard_normal((6, 5)).astype("f4")}
    nodes, output = (nodes, "y") if tail else (nodes[:1], "a")
    made = cases.model(nodes, [port("x", ["T", "B", 4]), port("lens", ["B"], np.int32)], [output], tensors)
    model = cases.load(tmp_path, made)
    assert structure(model) == (["GRU", "Linear", "Softmax"] if tail else ["GRU"])
    x, lengths = rng.standard_normal((7, len(cases.LENGTHS), 4)).astype("f4"), np.array(cases.LENGTHS, np.int32)
    for row, length in enumerate(lengths):
        x[length:, row] = np.nan
    (whole,) = model.run(None, {"x": x, "lens": lengths})
    cases.agree([whole], cases.theirs(made, {"x": np.nan_to_num(x), "lens": lengths}))
    y = model(x, lengths=lengths)
    past = np.arange(7)[:, None] >= lengths
    assert not y[past].any() and (not tail or np.array_equal(y[~past], whole[~past]))


def test_a_chain_streams_saves_and_copies(tmp_path, rng):
    made = _conv(Graph(rng), pads=[2, 0]).add("MatMul", "w").model()
    made.graph.initializer.append(onnx.numpy_helper.from_array(rng.standard_normal((3, 5)).astype("f4"), "w"))
    model = cases.load(tmp_path, made)
    x = rng.standard_normal((7, 5, 4)).astype("f4")
    whole = model(x)
    stream = model.stream(5)
    assert np.array_equal(np.stack([stream.step(step) for step in x]), whole)
    model.save(tmp_path / "saved")
    again = fastrnn.load(tmp_path / "saved")
    assert type(again) is fastrnn.Sequential and np.array_equal(again(x), whole)
    for other in (copy.copy(model), copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert np.array_equal(other.run(None, {"x": x})[0], model.run(None, {"x": x})[0])
        assert other.inputs == model.inputs and other.parts == model.parts
    with pytest.raises(AttributeError, match="immutable"):
        model.inputs = ()
    with pytest.raises(ValueError, match="feed lacks 'x'"):
        model.run(None, {})


def test_isa(tmp_path, rng, isa):
    made = Graph(rng).layer().add("Tanh").model()
    assert cases.load(tmp_path, made, isa=isa).isa == isa
    with pytest.raises(ValueError, match="isa is 'sse9'"):
        cases.load(tmp_path, made, isa="sse9")
