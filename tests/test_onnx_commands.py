"""The commands for files on models of ONNX, and weights of other types."""

import json

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import onnx_cases as cases  # noqa: E402
from onnx_cases import node, port  # noqa: E402

import fastrnn  # noqa: E402
from fastrnn import cli  # noqa: E402
from fastrnn.serve.models import ServedModel  # noqa: E402


def tagger(rng):
    """An embedding, a bidirectional GRU and a linear layer: a Sequential."""
    tensors = cases.weights(rng, "GRU", 5, 4, 2) | {
        "E": rng.standard_normal((9, 5)).astype("f4"),
        "K": rng.standard_normal((8, 3)).astype("f4"),
        "shape": np.array([0, 0, -1]),
    }
    nodes = [
        node("Gather", ["E", "x"], ["a"]),
        node("Transpose", ["a"], ["b"], perm=[1, 0, 2]),
        node("GRU", ["b", "W", "R", "B"], ["c"], name="rnn", direction="bidirectional", linear_before_reset=1),
        node("Transpose", ["c"], ["d"], perm=[2, 0, 1, 3]),
        node("Reshape", ["d", "shape"], ["e"]),
        node("MatMul", ["e", "K"], ["y"]),
    ]
    nodes[2].attribute.append(onnx.helper.make_attribute("hidden_size", 4))
    return cases.model(nodes, [port("x", ["B", "T"], np.int64)], ["y"], tensors)


def with_lengths(rng, name="rnn", **attributes):
    """Cos, then an LSTM with lengths and initial states, whose W is behind a Neg, which NumPy does not compute here."""
    tensors = cases.weights(rng, "LSTM", 4, 5)
    tensors["minus"] = -tensors.pop("W")
    parts = ["lens", "h0", "c0"]
    nodes = [
        node("Neg", ["minus"], ["W"]),
        node("Cos", ["x"], ["a"]),
        node("LSTM", ["a", "W", "R", "B", *parts], ["y", "h", "c"], name=name, hidden_size=5, **attributes),
    ]
    inputs = [port("x", [None, None, 4]), port("lens", [None], np.int32)]
    inputs += [port(state, [1, None, 5]) for state in parts[1:]]
    return cases.model(nodes, inputs, ["y", "h", "c"], tensors)


def bare_layer(rng):
    nodes = [node("LSTM", ["x", "W", "R", "B"], ["y", "h"], name="rnn", hidden_size=5)]
    return cases.model(nodes, [port("x", ["T", "B", 4])], ["y", "h"], cases.weights(rng, "LSTM", 4, 5))


@pytest.fixture
def run(tmp_path, capsys):
    """Run a command on a model; the exit code, and what it writes."""

    def command(name, made, *options):
        path = tmp_path / "model.onnx"
        path.write_bytes(made.SerializeToString())
        code = cli.main([name, str(path), *options])
        out, err = capsys.readouterr()
        return code, out if code < 2 else err

    return command


@pytest.mark.parametrize("options", [(), ("--weight-dtype", "float16")])
@pytest.mark.parametrize("make", [tagger, with_lengths, bare_layer])
def test_verify_whole_files(run, rng, make, options):
    code, text = run("verify", make(rng), "--json", *options)
    document = json.loads(text)
    assert code == 0 and document["witness"].startswith("onnxruntime ")
    assert set(document["parts"]) == {"y"} | ({"h"} if make is bare_layer else set()) | (
        {"h", "c"} if make is with_lengths else set()
    )
    assert (document["largest_difference"] > 1e-6) == bool(options)
    assert document["tolerance"] == (5e-3 if options else 1e-5)


@pytest.mark.parametrize("attributes", [{}, {"clip": 0.5}, {"input_forget": 1}, {"direction": "reverse"}])
def test_verify_one_node(run, rng, attributes):
    code, text = run("verify", with_lengths(rng, **attributes), "--prefix", "rnn", "--json")
    document = json.loads(text)
    assert code == 0 and document["parts"].keys() == {"y", "h", "c"} and document["largest_difference"] < 1e-6


def test_verify_compares_numbers_that_are_not_zero(run, rng):
    """Lengths that nodes compute are no lengths of the whole graph; drawn as zeros they leave nothing to compare."""
    made = with_lengths(rng)
    made.graph.node[-1].input[4] = "sorted"
    made.graph.node.insert(0, node("Neg", ["lens"], ["minus lens"]))
    made.graph.node.insert(1, node("Neg", ["minus lens"], ["sorted"]))
    made.graph.input[1].CopyFrom(port("lens", [1], np.int32))
    for info in made.graph.input:
        if info.name != "lens":
            info.type.tensor_type.shape.dim[1].dim_value = 1
    for seed in range(4):
        code, text = run("verify", made, "--json", "--seed", str(seed))
        document = json.loads(text)
        assert code == 0 and document["here"] != 0 and document["largest_difference"] > 0


def test_verify_sees_a_difference(run, rng):
    """onnxruntime takes 0 for Affine's alpha where there is none, ONNX's operator 1."""
    made = bare_layer(rng)
    made.graph.node[0].attribute.append(onnx.helper.make_attribute("activations", ["Sigmoid", "Affine", "Tanh"]))
    for options in ((), ("--prefix", "rnn")):
        code, text = run("verify", made, *options)
        assert code == 1 and "THEY DIFFER" in text


def test_verify_what_onnxruntime_does_not_take(run, rng):
    """Its LSTM computes float32 alone."""
    made = bare_layer(rng)
    for tensor in made.graph.initializer:
        tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor).astype("f8"), tensor.name))
    for value in (*made.graph.input, *made.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    for options in ((), ("--prefix", "rnn")):
        code, text = run("verify", made, *options)
        assert code == 2 and "so nothing is compared" in text


def test_inspect_lists_names_that_choose(run, rng):
    """Also where exporters give all nodes the same name."""
    tensors = cases.weights(rng, "GRU", 4, 3)
    nodes = [node("GRU", ["x", "W", "R", "B"], [name, f"h{name}"], name="rnn", hidden_size=3) for name in "yz"]
    made = cases.model(nodes, [port("x", [None, None, 4])], ["y", "hz"], tensors)
    code, text = run("inspect", made, "--json")
    document = json.loads(text)
    assert code == 0 and [layer["choice"] for layer in document["layers"]] == [{}, {"prefix": "y"}, {"prefix": "z"}]
    assert [(part["engine"], part["gives"]) for part in document["parts"]] == [
        ("fastrnn", ["y", "hy"]),
        ("fastrnn", ["z", "hz"]),
    ]
    code, text = run("verify", made, "--prefix", "rnn")
    assert code == 2 and "has 2 recurrent nodes named 'rnn'; it has 'y' (GRU), 'z' (GRU)" in text
    assert run("verify", made, "--prefix", "z")[0] == 0


def test_convert_and_run(run, rng, tmp_path):
    out, lines = tmp_path / "out", tmp_path / "lines"
    lines.write_text("[3, 8, 0, 1]\n[2]\n[]\n")
    made = tagger(rng)
    assert run("convert", made, str(out))[0] == 0
    code, text = run("run", made, "--input", str(lines))
    assert code == 0 and [len(json.loads(line)) for line in text.splitlines()] == [4, 1, 0]
    x = np.array([[3, 8, 0, 1]])
    assert np.array_equal(fastrnn.load(out)(x), fastrnn.load(tmp_path / "model.onnx")(x))


@pytest.mark.parametrize("command", ["convert", "run"])
def test_graphs_that_are_no_sequential(run, rng, tmp_path, command):
    options = [str(tmp_path / "out")] if command == "convert" else ["--input", "-"]
    code, text = run(command, with_lengths(rng), *options)
    assert code == 2 and "it is a graph of ONNX that is no Sequential (the Cos node" in text
    assert "--prefix chooses one of its recurrent nodes" in text
    if command == "convert":
        assert run("convert", bare_layer(rng), *options, "--prefix", "rnn")[0] == 0
        layer = fastrnn.load(options[0])
        assert (type(layer).__name__, layer.input_size, layer.hidden_size) == ("LSTM", 4, 5)


def stacked(rng, op, head=()):
    """Two bidirectional layers with initial and final states, as PyTorch exports a module, and what is behind them."""
    first, second = cases.weights(rng, op, 4, 5, 2), cases.weights(rng, op, 10, 5, 2)
    tensors = {f"{name}{number}": array for number, part in enumerate((first, second)) for name, array in part.items()}
    options = {"direction": "bidirectional", "hidden_size": 5} | ({"linear_before_reset": 1} if op == "GRU" else {})
    states = ["h0", "c0"] if op == "LSTM" else ["h0"]
    split, finals, nodes, x = [f"{name}{number}" for name in states for number in (0, 1)], [], [], "x"
    for name in states:
        nodes.append(node("Split", [name], [f"{name}0", f"{name}1"], axis=0))
    for number in (0, 1):
        own = [name for name in split if name.endswith(str(number))]
        finals.append([f"{name[0]}n{number}" for name in own])
        weights = [f"{name}{number}" for name in "WRB"]
        nodes.append(node(op, [x, *weights, "", *own], [f"a{number}", *finals[-1]], name=f"rnn{number}", **options))
        nodes.append(node("Transpose", [f"a{number}"], [f"b{number}"], perm=[0, 2, 1, 3]))
        nodes.append(node("Reshape", [f"b{number}", "shape"], [x := f"y{number}"]))
    nodes += [node("Concat", names, [names[0][0]], axis=0) for names in zip(*finals, strict=True)]
    inputs = [port("x", ["T", "B", 4]), *(port(name, [4, 2, 5]) for name in states)]
    tensors |= {"shape": np.array([0, 0, -1])} | ({"K": rng.standard_normal((10, 3)).astype("f4")} if head else {})
    outputs = ["z" if head else "y1", *(name[0] for name in states)]
    return cases.model([*nodes, *head], inputs, outputs, tensors, opset=13)


@pytest.mark.parametrize("op", cases.GATES)
def test_modules_with_states_run_from_zeros(run, rng, tmp_path, op):
    """`verify` gives rows as many as the initial states have; `convert` and `run` take the module without states."""
    out, lines = tmp_path / "out", tmp_path / "lines"
    made = stacked(rng, op)
    assert run("verify", made)[0] == 0
    assert run("convert", made, str(out))[0] == 0
    layer = fastrnn.load(out)
    assert (type(layer).__name__, layer.num_layers, layer.bidirectional, layer.batch_first) == (op, 2, True, False)
    model = fastrnn.load(tmp_path / "model.onnx")
    x = rng.standard_normal((6, 2, 4)).astype("f4")
    y, state = layer(x)
    cases.agree([y, *(state if op == "LSTM" else [state])], model.run(None, {"x": x}))
    lines.write_text("".join(f"{json.dumps(x[:length, row].tolist())}\n" for row, length in enumerate((6, 2))))
    code, text = run("run", made, "--input", str(lines))
    found = [np.array(json.loads(line), "f4") for line in text.splitlines()]
    wanted, _ = layer(x, lengths=[6, 2])
    assert code == 0 and [len(row) for row in found] == [6, 2]
    for row, array in enumerate(found):
        assert np.array_equal(array, wanted[: len(array), row])


def test_modules_with_states_can_be_served(rng, tmp_path):
    """As the layer that they are; sequences keep its states."""
    served = ServedModel("m", cases.load(tmp_path, stacked(rng, "LSTM")), 4)
    assert type(served.model) is fastrnn.LSTM and list(served.states) == ["h", "c"]
    with pytest.raises(TypeError, match=r"model m is a fastrnn\.onnx\.model\.Model because the Cos node"):
        ServedModel("m", cases.load(tmp_path, with_lengths(rng)), 4)


def test_a_chain_with_states_is_saved_as_a_model(run, rng, tmp_path):
    made = stacked(rng, "GRU", [node("MatMul", ["y1", "K"], ["z"])])
    assert run("convert", made, str(tmp_path / "out"))[0] == 0
    model, x = fastrnn.load(tmp_path / "out"), rng.standard_normal((6, 2, 4)).astype("f4")
    assert type(model) is fastrnn.Sequential and len(model.spec.ops) == 3
    cases.agree([model(x)], fastrnn.load(tmp_path / "model.onnx").run(["z"], {"x": x}))


def rounded(made):
    """The model with its matrices rounded to float16."""
    made = onnx.ModelProto.FromString(made.SerializeToString())
    for tensor in made.graph.initializer:
        if tensor.name in ("W", "R", "minus"):
            array = onnx.numpy_helper.to_array(tensor).astype("f2").astype("f4")
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    return made


@pytest.mark.parametrize("make", [tagger, with_lengths, bare_layer])
def test_weight_dtype(tmp_path, rng, make):
    """The bits are those of the rounded weights, in a Sequential, in a graph of parts and in one with states."""
    made = make(rng)
    half, same = cases.load(tmp_path, made, weight_dtype="float16"), cases.load(tmp_path, rounded(made))
    plain = cases.load(tmp_path, made)
    x = rng.integers(0, 9, (3, 7)) if make is tagger else rng.standard_normal((7, 3, 4)).astype("f4")
    feed = {"x": x}
    if make is with_lengths:
        feed["lens"] = np.array([3, 7, 0], np.int32)
    y = half.run(["y"], feed)[0]
    assert np.array_equal(y, same.run(["y"], feed)[0]) and not np.array_equal(y, plain.run(["y"], feed)[0])
    layer = fastrnn.load(tmp_path / "model.onnx", prefix="rnn", weight_dtype="float16")
    assert layer.weight_dtype == "float16"
    if make is tagger:
        other = plain.with_weight_dtype("float16")
        assert np.array_equal(other.run(["y"], feed)[0], y) and not np.array_equal(plain.run(["y"], feed)[0], y)
        assert other.inputs == plain.inputs and other.parts == plain.parts


@pytest.mark.parametrize("make", [tagger, with_lengths, bare_layer])
def test_int8(tmp_path, rng, make):
    made = make(rng)
    small, plain = cases.load(tmp_path, made, weight_dtype="int8"), cases.load(tmp_path, made)
    x = rng.integers(0, 9, (3, 7)) if make is tagger else rng.standard_normal((7, 3, 4)).astype("f4")
    feed = {"x": x} | ({"lens": np.array([3, 7, 0], "i4")} if make is with_lengths else {})
    for here, there in zip(small.run(None, feed), plain.run(None, feed), strict=True):
        assert not np.array_equal(here, there)
        np.testing.assert_allclose(here, there, atol=0.1, rtol=0.1)


def test_weight_dtype_of_weights_that_come_with_a_call(tmp_path, rng):
    tensors = cases.weights(rng, "GRU", 4, 3)
    made = cases.model(
        [node("GRU", ["x", *tensors], ["y"], name="rnn", hidden_size=3)],
        [port("x", [None, None, 4]), *(port(name, array.shape) for name, array in tensors.items())],
        ["y"],
        {},
    )
    feed = {"x": rng.standard_normal((5, 2, 4)).astype("f4")} | tensors
    small = feed | {name: tensors[name].astype("f2").astype("f4") for name in ("W", "R")}
    half, plain = cases.load(tmp_path, made, weight_dtype="float16"), cases.load(tmp_path, made)
    assert np.array_equal(half.run(None, feed)[0], plain.run(None, small)[0])
    with pytest.raises(ValueError, match=r"GRU node 'rnn': weight_ih_l0.* out of float16's range"):
        half.run(None, feed | {"W": tensors["W"] + 1e5})


def test_weight_dtype_that_does_not_fit(tmp_path, rng):
    made = bare_layer(rng)
    with pytest.raises(ValueError, match=r"LSTM node 'rnn': weight_dtype is 'half', wanted None or one of float32"):
        cases.load(tmp_path, made, weight_dtype="half")
    made.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(np.full((1, 20, 4), 1e5, "f4"), "W"))
    with pytest.raises(ValueError, match=r"LSTM node 'rnn': weight_ih_l0.* out of float16's range"):
        cases.load(tmp_path, made, weight_dtype="float16")
    with pytest.raises(ValueError, match=r"backend given, but the file is loaded as a model of fastrnn.onnx"):
        cases.load(tmp_path, made, backend="fused")
