"""Graphs of ONNX that are no chains: recurrent nodes run here, what is around them in onnxruntime."""

import pickle

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import cases as recurrent_cases  # noqa: E402
import files  # noqa: E402
import onnx_cases as cases  # noqa: E402
from onnx_cases import node, port  # noqa: E402

import fastrnn  # noqa: E402
from fastrnn import cli  # noqa: E402

TRUE = onnx.helper.make_tensor("true", onnx.TensorProto.BOOL, [], [True])


def layers(rng, *ops, inputs=4, hidden=3):
    """Tensors of several nodes, each under its own prefix; all but the first one read the one before."""
    tensors = {}
    for index, op in enumerate(ops):
        found = cases.weights(rng, op, hidden if index else inputs, hidden)
        tensors |= {f"{name}{index}": array for name, array in found.items()}
    return tensors


def two_layers(rng):
    """Sin, LSTM, Cos, GRU, Sin; a second output before the LSTM, and a third beside the GRU."""
    tensors = layers(rng, "LSTM", "GRU") | {"axis": np.array([1]), "half": np.array(0.5, "f4")}
    nodes = [
        node("Sin", ["x"], ["a"], name="first"),
        node("LSTM", ["a", "W0", "R0", "B0", "", "h0"], ["b", "hn"], name="lower", hidden_size=3),
        node("Squeeze", ["b", "axis"], ["c"], name="squeeze"),
        node("Cos", ["c"], ["d"], name="middle"),
        node("Cos", ["half"], ["constant"], name="constant"),
        node("Mul", ["d", "constant"], ["e"], name="scale"),
        node("GRU", ["e", "W1", "R1", "B1"], ["f"], name="upper", hidden_size=3),
        node("Sin", ["f"], ["y"], name="last"),
        node("Mul", ["a", "constant"], ["early"], name="beside"),
        node("Exp", ["z"], ["of_z"], name="other"),
        node("Exp", ["y"], ["unused"], name="unused"),
    ]
    inputs = [port("x", ["T", "B", 4]), port("h0", [1, "B", 3]), port("z", ["N"])]
    return cases.model(nodes, inputs, ["y", "early", "hn", "of_z"], tensors)


@pytest.fixture
def example(rng, tmp_path):
    """The model loaded, the model, and inputs."""
    made = two_layers(rng)
    feed = {
        "x": rng.standard_normal((7, 5, 4)).astype("f4"),
        "h0": rng.standard_normal((1, 5, 3)).astype("f4"),
        "z": rng.standard_normal(2).astype("f4"),
    }
    return cases.load(tmp_path, made), made, feed


def test_split(example):
    model, made, feed = example
    cases.agree(model.run(None, feed), cases.theirs(made, feed))
    assert [part.engine for part in model.parts] == ["onnxruntime", "fastrnn", "onnxruntime", "fastrnn", "onnxruntime"]
    assert [part.nodes for part in model.parts] == [
        ("Sin node 'first'", "Mul node 'beside'", "Exp node 'other'"),
        ("LSTM node 'lower'",),
        ("Squeeze node 'squeeze'", "Cos node 'middle'", "Mul node 'scale'"),
        ("GRU node 'upper'",),
        ("Sin node 'last'",),
    ]
    assert (model.parts[1].reads, model.parts[1].gives) == (("a", "h0"), ("b", "hn"))
    assert list(model.layers) == ["b", "f"] and isinstance(model.layers["f"], fastrnn.GRU)
    assert "it has 2 inputs besides lengths and initial states" in model.why_not_sequential
    assert [(port.name, port.shape) for port in model.inputs] == [
        ("x", ("T", "B", 4)),
        ("h0", (1, "B", 3)),
        ("z", ("N",)),
    ]
    assert repr(model) == "fastrnn.onnx.Model('x', 'h0', 'z' -> 'y', 'early', 'hn', 'of_z', 2 of 5 parts here)"


def test_run_by_names(example):
    model, made, feed = example
    for names in (["hn", "y"], ["of_z"], ["early"], ["y", "y"], []):
        here, there = model.run(names, feed), cases.theirs(made, feed, names)
        cases.agree(here, there if names else [])
    # An initial state that is left out is zero.
    zeros = feed | {"h0": np.zeros_like(feed["h0"])}
    assert np.array_equal(model.run(["y"], {"x": feed["x"], "z": feed["z"]})[0], model.run(["y"], zeros)[0])
    assert np.array_equal(model(feed["x"], z=feed["z"])[0], model.run(["y"], zeros)[0])
    assert len(model(feed["x"].tolist(), z=[1.0, 2.0], h0=feed["h0"])) == 4


def test_calls_that_do_not_fit(example):
    model, _, feed = example
    for names, given, error, reason in (
        (["z"], feed, ValueError, "output_names has 'z', wanted some of 'y', 'early', 'hn', 'of_z'"),
        (None, {"x": feed["x"]}, ValueError, "feed lacks 'z'"),
        (None, feed | {"W0": feed["x"]}, ValueError, "feed has 'W0', wanted 'x', 'h0', 'z' alone"),
        (None, feed | {"a": feed["x"]}, ValueError, "feed has 'a', wanted 'x', 'h0', 'z' alone"),
        (None, feed | {"x": feed["x"].astype("f8")}, TypeError, "feed has 'x' of type float64, wanted float32"),
        (None, feed | {"x": feed["x"][0]}, ValueError, r"feed has 'x' of shape \(5, 4\), wanted \(T, B, 4\)"),
        (None, feed | {"x": feed["x"][..., 1:]}, ValueError, "onnxruntime: "),
    ):
        with pytest.raises(error, match=reason):
            model.run(names, given)
    with pytest.raises(ValueError, match=r"lengths is given, but no input of .* is the sequence_lens of its recurrent"):
        model(feed["x"], z=feed["z"], lengths=[1] * 5)
    with pytest.raises(ValueError, match="feed has 'w', wanted 'x', 'h0', 'z' alone"):
        model(feed["x"], z=feed["z"], w=1)
    with pytest.raises(TypeError, match="cannot be pickled: load its file again"):
        pickle.dumps(model)


def test_lengths(tmp_path, rng):
    """The input that leads to sequence_lens gets them, also through a Cast; padding is as the graph has it."""
    tensors = layers(rng, "GRU") | {"axis": np.array([1])}
    nodes = [
        node("Cast", ["lens"], ["short"], to=onnx.TensorProto.INT32),
        node("GRU", ["x", "W0", "R0", "B0", "short"], ["a"], hidden_size=3),
        node("Squeeze", ["a", "axis"], ["b"]),
        node("Cos", ["b"], ["y"]),
    ]
    made = cases.model(nodes, [port("x", [None, None, 4]), port("lens", [None], np.int64)], ["y"], tensors)
    model = cases.load(tmp_path, made)
    x, lengths = rng.standard_normal((7, len(cases.LENGTHS), 4)).astype("f4"), np.array(cases.LENGTHS)
    y = model(x, lengths=cases.LENGTHS)
    cases.agree([y], cases.theirs(made, {"x": x, "lens": lengths}))
    assert np.array_equal(y, model.run(None, {"x": x, "lens": lengths})[0]) and (y[-1, 0] == 1).all()
    with pytest.raises(ValueError, match=r"lengths\[0\] is 9, but x has 7 steps"):
        model(x, lengths=[9] * len(lengths))
    with pytest.raises(TypeError, match="lengths is of type float64, wanted integers"):
        model(x, lengths=[1.0] * len(lengths))
    with pytest.raises(ValueError, match="feed lacks 'lens'"):
        model(x)


def test_lengths_that_the_graph_computes(tmp_path, rng):
    """As keras2onnx writes a mask: the sum of what is not zero."""
    tensors = layers(rng, "LSTM") | {"axis": np.array([1], np.int64), "steps": np.array([0])}
    nodes = [
        node("Abs", ["data"], ["positive"]),
        node("ReduceMax", ["positive"], ["largest"], axes=[2], keepdims=0),
        node("Cast", ["largest"], ["truth"], to=onnx.TensorProto.BOOL),
        node("Cast", ["truth"], ["ones"], to=onnx.TensorProto.INT32),
        node("ReduceSum", ["ones", "steps"], ["lens"], keepdims=0),
        node("LSTM", ["data", "W0", "R0", "B0", "lens"], ["", "h"], hidden_size=3),
    ]
    made = cases.model(nodes, [port("data", ["T", "B", 4])], ["h"], tensors)
    model = cases.load(tmp_path, made)
    x = rng.standard_normal((7, len(cases.LENGTHS), 4)).astype("f4")
    for row, length in enumerate(cases.LENGTHS):
        x[length:, row] = 0
    cases.agree([model(x)], cases.theirs(made, {"data": x}))
    with pytest.raises(ValueError, match="lengths is given, but no input"):
        model(x, lengths=cases.LENGTHS)
    with pytest.raises(ValueError, match="'data' is given, but it is x"):
        model(x, data=x)


def body(op, outer, output, inner, opset=17):
    """A branch of an If: one node that reads names from outside."""
    graph = onnx.helper.make_graph(
        [node(op, outer, [inner], **({"hidden_size": 3} if op == "GRU" else {}))], op, [], []
    )
    graph.output.append(port(output, None))
    graph.node.append(node("Identity", [inner], [output]))
    return graph


def test_bodies(tmp_path, rng):
    """Recurrent nodes in bodies run in onnxruntime, with what they read from outside; the others run here."""
    tensors = layers(rng, "LSTM", "GRU") | {"axis": np.array([1])}
    nodes = [
        node("LSTM", ["x", "W0", "R0", "B0"], ["a"], hidden_size=3),
        node("Squeeze", ["a", "axis"], ["b"]),
        node(
            "If",
            ["condition"],
            ["y"],
            name="choice",
            then_branch=body("GRU", ["b", "W1", "R1", "B1"], "then", "inner"),
            else_branch=body("Cos", ["a"], "else", "inner2"),
        ),
    ]
    ports = [port("x", [None, None, 4]), port("condition", [], np.bool_)]
    made = cases.model(nodes, ports, ["y"], tensors)
    model = cases.load(tmp_path, made)
    assert [part.engine for part in model.parts] == ["fastrnn", "onnxruntime"]
    assert set(model.parts[1].reads) == {"a", "condition"}
    for condition in (True, False):
        feed = {"x": rng.standard_normal((7, 5, 4)).astype("f4"), "condition": np.array(condition)}
        cases.agree(model.run(None, feed), cases.theirs(made, feed))
    alone = cases.model([nodes[-1]], [ports[1], port("b", [None] * 3), port("a", [None] * 4)], ["y"], tensors)
    with pytest.raises(ValueError, match=r"model\.onnx: GRU inside the If node 'choice' does not run here"):
        cases.load(tmp_path, alone)


def test_functions(tmp_path, rng):
    """A function of the model is passed on to onnxruntime; a recurrent node inside one does not run here."""
    tensors = layers(rng, "LSTM")
    function = onnx.helper.make_function(
        "own", "Twice", ["a"], ["b"], [node("Add", ["a", "a"], ["b"])], [onnx.helper.make_opsetid("", 17)]
    )
    nodes = [
        node("LSTM", ["x", "W0", "R0", "B0"], ["a"], hidden_size=3),
        node("Twice", ["a"], ["y"], domain="own", name="twice"),
    ]
    made = cases.model(nodes, [port("x", [None, None, 4])], ["y"], tensors, functions=[function], domains={"own": 1})
    x = rng.standard_normal((7, 5, 4)).astype("f4")
    cases.agree([cases.load(tmp_path, made)(x)], cases.theirs(made, {"x": x}))
    inner = onnx.helper.make_function(
        "own",
        "Layer",
        ["x", "w", "r"],
        ["y"],
        [node("RNN", ["x", "w", "r"], ["y"])],
        [onnx.helper.make_opsetid("", 17)],
    )
    nodes = [node("Layer", ["x", "W0", "R0"], ["y"], domain="own", name="layer")]
    made = cases.model(nodes, [port("x", [None, None, 4])], ["y"], tensors, functions=[inner], domains={"own": 1})
    with pytest.raises(ValueError, match="RNN inside the Layer node 'layer' does not run here"):
        cases.load(tmp_path, made)
    inner.domain = ""
    made = cases.model(nodes, [port("x", [None, None, 4])], ["y"], tensors, functions=[inner])
    with pytest.raises(ValueError, match="function 'Layer' takes the place of an operator of ONNX"):
        cases.load(tmp_path, made)


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        ([node("Sin", ["x"], ["y"])], "it has no LSTM, GRU or RNN node"),
        (
            [node("AttnLSTM", ["x"] * 3, ["y"], domain="com.microsoft", name="q")],
            "the AttnLSTM node 'q' of com.microsoft does not run here",
        ),
        ([node("LSTM", ["x"] * 3, ["y"], domain="own")], "it has no LSTM, GRU or RNN node"),
        ([node("Sin", ["z"], ["y"], name="s")], "Sin node 's' takes 'z', which nothing before it gives"),
        (
            [node("Sin", ["a"], ["y"], name="s"), node("Sin", ["x"], ["a"])],
            "Sin node 's' takes 'a', which nothing before it gives",
        ),
        (
            [node("Sin", ["x"], ["y"]), node("Cos", ["x"], ["y"], name="c")],
            "Cos node 'c' gives 'y', which is there already",
        ),
        ([node("Sin", ["x"], ["z"])], "output 'y' is given by nothing"),
    ],
)
def test_refused(tmp_path, nodes, reason):
    made = cases.model(nodes, [port("x", [None, None, 4])], ["y"], {}, domains={"com.microsoft": 1, "own": 1})
    with pytest.raises(ValueError, match=reason):
        cases.load(tmp_path, made)


def test_a_loop_over_cells_that_was_unrolled(tmp_path, rng, capsys):
    """PyTorch's exporter keeps the names of the cell's weights; they make a layer."""
    spec = recurrent_cases.random_spec(rng, "gru", 4, 3)
    arrays = files.state_dict(spec, "net.cell.")
    arrays = {name.removesuffix("_l0"): array for name, array in arrays.items()}
    arrays["other"] = arrays.pop("net.cell.bias_hh")  # the exporter keeps one of equal arrays
    nodes = [node("Identity", ["other"], ["net.cell.bias_hh"])]
    nodes += [node("Gemm", ["x", "net.cell.weight_ih"], ["y"], transB=1)]
    path = tmp_path / "model.onnx"
    path.write_bytes(cases.model(nodes, [port("x", [None, 4])], ["y"], arrays).SerializeToString())
    reason = r"single steps that .* loaded as a layer: prefix='net\.cell\.': GRUCell of 4 inputs, 3 units$"
    with pytest.raises(ValueError, match=reason):
        fastrnn.load(path)
    assert cli.main(["inspect", str(path)]) == 2 and "GRUCell of 4 inputs" in capsys.readouterr().err
    layer = fastrnn.load(path, prefix="net.cell", batch_first=False)
    assert not layer.batch_first and cli.main(["inspect", str(path), "--prefix", "net.cell"]) == 0
    wanted = fastrnn.GRU(spec)
    x = rng.standard_normal((5, 2, 4)).astype("f4")
    assert np.array_equal(layer(x)[0], wanted(x.swapaxes(0, 1))[0].swapaxes(0, 1))
    with pytest.raises(ValueError, match="none under 'rnn'"):
        fastrnn.load(path, prefix="rnn")


def test_what_onnxruntime_refuses(tmp_path, rng):
    nodes = [
        node("LSTM", ["x", "W0", "R0", "B0"], ["a"], hidden_size=3),
        node("NoSuchOperator", ["a"], ["y"], name="strange"),
    ]
    made = cases.model(nodes, [port("x", [None, None, 4])], ["y"], layers(rng, "LSTM"))
    with pytest.raises(ValueError, match="onnxruntime refuses the part NoSuchOperator node 'strange': "):
        cases.load(tmp_path, made)


@pytest.mark.parametrize("where", ["graph", "body", "function"])
def test_random_numbers_are_no_constants(tmp_path, rng, where):
    """A weight that is drawn is drawn in each run, also in a body or a function."""
    draw = node("RandomNormal", [], ["noise"], shape=[1, 9, 4], name="draw")
    options = {}
    if where == "body":
        body = onnx.helper.make_graph([draw], "body", [], [port("noise", None)])
        draw = node("If", ["true"], ["noise"], then_branch=body, else_branch=body)
    elif where == "function":
        opset = onnx.helper.make_opsetid("", 17)
        made = onnx.helper.make_function("own", "Draw", [], ["noise"], [draw], [opset])
        draw, options = node("Draw", [], ["noise"], domain="own"), {"functions": [made], "domains": {"own": 1}}
    tensors = cases.weights(rng, "GRU", 4, 3)
    tensors.pop("W")
    tensors["true"] = np.array(True)
    nodes = [draw, node("GRU", ["x", "noise", "R", "B"], ["y"], hidden_size=3)]
    model = cases.load(tmp_path, cases.model(nodes, [port("x", [None, None, 4])], ["y"], tensors, **options))
    x = rng.standard_normal((5, 2, 4)).astype("f4")
    assert not np.array_equal(model(x), model(x))


def test_float16_around_a_layer(tmp_path, rng):
    """onnxruntime 1.32 ends the process on such a part, unless its last optimizations are left out."""
    tensors = layers(rng, "LSTM") | {"axis": np.array([1]), "K": rng.standard_normal((3, 2)).astype("f4")}
    half = {name: array.astype("f2") if array.dtype == "f4" else array for name, array in tensors.items()}
    nodes = [
        node("LSTM", ["x", "W0", "R0", "B0"], ["a"], hidden_size=3),
        node("Squeeze", ["a", "axis"], ["b"]),
        node("Transpose", ["b"], ["c"], perm=[1, 0, 2]),
        node("MatMul", ["c", "K"], ["y"]),
    ]
    x = rng.standard_normal((7, 5, 4)).astype("f2")
    ports = [port("x", [None, None, 4], np.float16)]
    model = cases.load(tmp_path, cases.model(nodes, ports, [port("y", None, np.float16)], half))
    wide = cases.model(nodes, [port("x", [None, None, 4])], ["y"], tensors)
    cases.agree([model(x).astype("f4")], cases.theirs(wide, {"x": x.astype("f4")}), 5e-3)
    with pytest.raises(TypeError, match="of type float64, wanted float16"):
        model(x.astype("f8"))


def test_weights_of_operators_that_numpy_does_not_compute_here(tmp_path, rng):
    """Quantized weights, and a weight that is normalized: onnxruntime computes the constants once."""
    found = cases.weights(rng, "GRU", 4, 3)
    tensors = {
        "q": rng.integers(-127, 127, found["W"].shape).astype(np.int8),
        "scale": np.array(0.01, "f4"),
        "v": found["R"],
        "B": found["B"],
    }
    nodes = [
        node("DequantizeLinear", ["q", "scale"], ["W"]),
        node("ReduceL2", ["v"], ["length"], axes=[2], keepdims=1),
        node("Div", ["v", "length"], ["R"]),
        node("GRU", ["x", "W", "R", "B"], ["y"], hidden_size=3),
    ]
    made = cases.model(nodes, [port("x", [None, None, 4])], ["y"], tensors)
    model = cases.load(tmp_path, made)
    x = rng.standard_normal((7, 5, 4)).astype("f4")
    cases.agree(model.run(None, {"x": x}), cases.theirs(made, {"x": x}))
    assert [part.engine for part in model.parts] == ["fastrnn"]


def test_constants_as_states_lengths_and_outputs(tmp_path, rng):
    tensors = layers(rng, "LSTM") | {
        "h0": rng.standard_normal((1, 2, 3)).astype("f4"),
        "zero": np.zeros((1, 2, 3), "f4"),
        "lens": np.array([3, 5], np.int32),
    }
    nodes = [
        node("Constant", [], ["fixed"], value_floats=[1.0, 2.0]),
        node("LSTM", ["x", "W0", "R0", "B0", "lens", "h0", "zero"], ["y", "hn"], hidden_size=3),
    ]
    made = cases.model(nodes, [port("x", [None, None, 4])], ["y", "hn", "fixed", "h0", "x"], tensors)
    model = cases.load(tmp_path, made)
    x = rng.standard_normal((5, 2, 4)).astype("f4")
    cases.agree(model.run(None, {"x": x}), cases.theirs(made, {"x": x}))


def test_a_sequence_passes_between_parts(tmp_path, rng):
    """What is no tensor goes from part to part as it is."""
    tensors = layers(rng, "RNN") | {"axis": np.array([1]), "last": np.array(-1)}
    nodes = [
        node("SplitToSequence", ["x"], ["steps"], axis=0),
        node("RNN", ["x", "W0", "R0", "B0"], ["a"], hidden_size=3),
        node("Squeeze", ["a", "axis"], ["b"]),
        node("SequenceInsert", ["steps", "b"], ["more"]),
        node("SequenceAt", ["more", "last"], ["c"]),
        node("SequenceLength", ["more"], ["count"]),
        node("Cast", ["count"], ["number"], to=onnx.TensorProto.FLOAT),
        node("Add", ["c", "number"], ["y"]),
    ]
    made = cases.model(nodes, [port("x", [None, None, 4])], ["y"], tensors)
    model = cases.load(tmp_path, made)
    assert "steps" in model.parts[0].gives
    x = rng.standard_normal((7, 5, 4)).astype("f4")
    cases.agree(model.run(None, {"x": x}), cases.theirs(made, {"x": x}))


def test_many_nodes_with_the_same_weights_share_a_layer(tmp_path, rng):
    tensors = layers(rng, "GRU", inputs=3)
    nodes = [node("GRU", ["x" if not i else f"s{i}", "W0", "R0", "B0"], [f"y{i}"], hidden_size=3) for i in range(3)]
    nodes = [
        part
        for i, one in enumerate(nodes)
        for part in (
            one,
            node("Sin", [f"y{i}"], [f"t{i}"]),
            node("ReduceSum", [f"t{i}", "axis"], [f"s{i + 1}"], keepdims=0),
        )
    ]
    made = cases.model(nodes, [port("x", [None, None, 3])], ["s3"], tensors | {"axis": np.array([1])})
    model = cases.load(tmp_path, made)
    assert len({id(layer) for layer in model.layers.values()}) == 1 and len(model.layers) == 3
    x = rng.standard_normal((7, 5, 3)).astype("f4")
    cases.agree([model(x)], cases.theirs(made, {"x": x}))


def test_initializers_among_the_inputs_are_constants(tmp_path, rng):
    """As in files before IR version 4, in which every initializer was an input."""
    tensors = layers(rng, "LSTM")
    nodes = [node("LSTM", ["x", "W0", "R0", "B0"], ["y"], hidden_size=3)]
    ports = [port("x", [None, None, 4])] + [port(name, array.shape) for name, array in tensors.items()]
    model = cases.load(tmp_path, cases.model(nodes, ports, ["y"], tensors))
    assert [port.name for port in model.inputs] == ["x"]


def test_prefix(tmp_path, rng):
    made = two_layers(rng)
    model = cases.load(tmp_path, made)
    assert cases.load(tmp_path, made, prefix="lower")._engine.fingerprint == model.layers["b"]._engine.fingerprint
    assert cases.load(tmp_path, made, prefix="f")._engine.fingerprint == model.layers["f"]._engine.fingerprint
    with pytest.raises(ValueError, match="no recurrent node named 'x'; it has 'lower' \\(LSTM\\), 'upper' \\(GRU\\)"):
        cases.load(tmp_path, made, prefix="x")
    for options, reason in (
        ({"batch_first": True}, "batch_first is given, but .* is loaded as a graph, whose inputs have axes of its own"),
        ({"dtype": "f8"}, "dtype given, but the file is loaded as a model of fastrnn.onnx, which has no such option"),
        ({"backend": "blas"}, "backend given, but the file is loaded as a model of fastrnn.onnx"),
        ({"scope": "a"}, "scope is given, but .* is a model of ONNX, which takes batch_first and prefix only"),
    ):
        with pytest.raises(ValueError, match=reason):
            cases.load(tmp_path, made, **options)
    for options in ({"prefix": 1}, {"prefix": "lower", "batch_first": 1}):
        with pytest.raises(TypeError):
            cases.load(tmp_path, made, **options)


def test_packages_that_are_missing(tmp_path, rng, monkeypatch):
    made = two_layers(rng)
    found = fastrnn.extras.util.find_spec
    for package, user in (
        ("onnx", "reading a model of ONNX"),
        ("onnxruntime", "the nodes of .* that are not recurrent"),
    ):
        monkeypatch.setattr(
            fastrnn.extras.util, "find_spec", lambda name, gone=package: None if name == gone else found(name)
        )
        with pytest.raises(
            ModuleNotFoundError, match=f"{user} needs the package {package}, not installed .extra 'onnx'"
        ):
            cases.load(tmp_path, made)
