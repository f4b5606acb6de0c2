"""LSTM, GRU and RNN nodes of ONNX: its own node tests, random nodes against onnxruntime, and what is refused."""

import importlib
import importlib.util
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import onnx_cases as cases  # noqa: E402

import fastrnn  # noqa: E402
from fastrnn import reference  # noqa: E402
from fastrnn.importers.onnx import spec_from_node  # noqa: E402

ROOT = Path(__file__).parents[1]

found = importlib.util.spec_from_file_location("compare_onnx", ROOT / "bench" / "compare_onnx.py")
compare_onnx = sys.modules["compare_onnx"] = importlib.util.module_from_spec(found)
found.loader.exec_module(compare_onnx)


def node_tests():
    """ONNX's node tests for the three operators. Only their modules are imported: all others take half a minute."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in ("lstm", "gru", "rnn"):
            importlib.import_module(f"onnx.backend.test.case.node.{name}")
    return [case for case in importlib.import_module("onnx.backend.test.case.node")._NodeTestCases]


NODE_TESTS = node_tests()


def test_all_18_are_there():
    assert len(NODE_TESTS) == 18


@pytest.mark.parametrize("case", NODE_TESTS, ids=lambda case: case.name)
def test_onnx_node_test(tmp_path, case):
    model = cases.load(tmp_path, case.model)
    for inputs, outputs in case.data_sets:
        feed = dict(zip([port.name for port in case.model.graph.input], inputs, strict=True))
        for here, there in zip(model.run(None, feed), outputs, strict=True):
            assert here.shape == there.shape
            np.testing.assert_allclose(here, there, rtol=case.rtol, atol=case.atol)


@pytest.mark.parametrize("first", range(0, 80, 20))
def test_random_nodes(tmp_path, first):
    """20 of the models of bench/compare_onnx.py."""
    for seed in range(first, first + 20):
        _, there, exact = compare_onnx.compare(seed, str(tmp_path))
        assert max(there, exact) < compare_onnx.TOLERANCE, seed


def test_random_nodes_vary():
    nodes = [compare_onnx.draw(np.random.default_rng(seed)) for seed in range(200)]
    assert {node.opset for node in nodes} == set(range(7, onnx.defs.onnx_opset_version() + 1))
    assert {name for node in nodes for name in node.attributes} == {
        *("activation_alpha", "activation_beta", "activations", "clip", "direction", "hidden_size"),
        *("input_forget", "linear_before_reset"),
    }
    assert {node.layout for node in nodes} == {0, 1}
    assert any(node.lengths is not None and 0 in node.lengths and "initial_h" in node.states for node in nodes)


def one_node(rng, op="LSTM", opset=17, hidden=3, inputs=4, extra=(), changes=(), **attributes):
    """A model of one node with the input x; `changes` replaces weights, None taking one away."""
    directions = 2 if attributes.get("direction") == "bidirectional" else 1
    tensors = cases.weights(rng, op, inputs, hidden, directions) | dict(changes)
    names = [name if tensors.get(name) is not None else "" for name in ("W", "R", "B")]
    tensors = {name: array for name, array in tensors.items() if array is not None}
    node = cases.node(op, ["x", *names, *extra], ["y", "h"], name="rnn", **attributes)
    ports = [cases.port("x", [None, None, inputs])]
    return cases.model([node], ports, ["y", "h"], tensors, opset)


@pytest.mark.parametrize("layout", [0, 1])
@pytest.mark.parametrize("op", cases.GATES)
def test_layer_by_name(tmp_path, rng, op, layout):
    """`prefix` gives the node's layer, in the node's order of axes."""
    model = cases.load(tmp_path, one_node(rng, op, direction="bidirectional", layout=layout))
    layer = fastrnn.load(tmp_path / "model.onnx", prefix="rnn")
    assert type(layer).__name__ == op and layer.batch_first == bool(layout)
    assert fastrnn.load(tmp_path / "model.onnx", prefix="y", batch_first=True, dtype="f8").dtype == np.float64
    x = rng.standard_normal((5, 3, 4)).astype("f4")
    y, h = model.run(None, {"x": x})
    other = layer(x)[0].reshape(5, 3, 2, 3)
    assert np.array_equal(y, other if layout else other.swapaxes(1, 2))
    assert y.shape == ((5, 3, 2, 3) if layout else (5, 2, 3, 3)) and h.shape == ((5, 2, 3) if layout else (2, 3, 3))


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_a_row_has_the_same_bits_in_every_batch(tmp_path, rng, isa, direction):
    tensors = cases.weights(rng, "LSTM", 4, 17, 2 if direction == "bidirectional" else 1)
    node = cases.node("LSTM", ["x", "W", "R", "B", "lens"], ["y", "h", "c"], direction=direction, hidden_size=17)
    ports = [cases.port("x", ["T", "B", 4]), cases.port("lens", ["B"], np.int32)]
    model = cases.load(tmp_path, cases.model([node], ports, ["y", "h", "c"], tensors), isa=isa)
    x = rng.standard_normal((7, len(cases.LENGTHS), 4)).astype("f4")
    lengths = np.array(cases.LENGTHS, np.int32)
    for row, length in enumerate(lengths):
        x[length:, row] = np.nan
    y, h, c = model.run(None, {"x": x, "lens": lengths})
    for row, length in enumerate(lengths):
        alone = model.run(None, {"x": x[:length, row : row + 1], "lens": lengths[row : row + 1]})
        assert np.array_equal(y[:length, :, row], alone[0][:, :, 0]) and not y[length:, :, row].any()
        assert np.array_equal(h[:, row], alone[1][:, 0]) and np.array_equal(c[:, row], alone[2][:, 0])


@pytest.mark.parametrize("layout", [0, 1])
@pytest.mark.parametrize("op", cases.GATES)
def test_a_row_of_length_zero_keeps_its_initial_state(tmp_path, rng, op, layout):
    """onnxruntime gives zeros, ONNX's text says nothing."""
    tensors = cases.weights(rng, op, 4, 3)
    parts = ["h0", "c0"] if op == "LSTM" else ["h0"]
    gives = ["y", "hn", "cn"] if op == "LSTM" else ["y", "hn"]
    node = cases.node(op, ["x", "W", "R", "B", "lens", *parts], gives, layout=layout)
    shape = ["B", 1, 3] if layout else [1, "B", 3]
    ports = [cases.port("x", [None, None, 4]), cases.port("lens", [None], np.int32)]
    ports += [cases.port(name, shape) for name in parts]
    model = cases.load(tmp_path, cases.model([node], ports, gives, tensors))
    x = rng.standard_normal((2, 2, 4)).astype("f4")
    initial = {name: rng.standard_normal((2, 1, 3) if layout else (1, 2, 3)).astype("f4") for name in parts}
    results = model.run(None, {"x": x, "lens": np.array([0, 2], np.int32), **initial})
    for name, final in zip(parts, results[1:], strict=True):
        rows, other = (final, initial[name]) if layout else (final[0], initial[name][0])
        assert np.array_equal(rows[0], other[0]) and not np.array_equal(rows[1], other[1])


def test_initial_states_may_be_left_out_one_by_one(tmp_path, rng):
    tensors = cases.weights(rng, "LSTM", 4, 3)
    node = cases.node("LSTM", ["x", "W", "R", "B", "", "h0", "c0"], ["y"])
    ports = [cases.port("x", [None, None, 4]), cases.port("h0", [1, None, 3]), cases.port("c0", [1, None, 3])]
    model = cases.load(tmp_path, cases.model([node], ports, ["y"], tensors))
    x, zeros = rng.standard_normal((5, 2, 4)).astype("f4"), np.zeros((1, 2, 3), "f4")
    other = rng.standard_normal((1, 2, 3)).astype("f4")
    for given in ({}, {"h0": other}, {"c0": other}):
        full = {"h0": zeros, "c0": zeros} | given
        assert np.array_equal(model.run(None, {"x": x, **given})[0], model.run(None, {"x": x, **full})[0])
        assert np.array_equal(model(x, **given), model.run(None, {"x": x, **full})[0])


@pytest.mark.parametrize("code", ["DOUBLE", "FLOAT16", "BFLOAT16"])
def test_other_types(tmp_path, rng, code):
    """float64 is computed in float64, 16-bit types in float32 and rounded at the end."""
    dtype = onnx.helper.tensor_dtype_to_np_dtype(getattr(onnx.TensorProto, code))
    tensors = {name: array.astype(dtype) for name, array in cases.weights(rng, "GRU", 4, 3).items()}
    node = cases.node("GRU", ["x", "W", "R", "B", "", "h0"], ["y", "h"])
    ports = [cases.port("x", [None, None, 4], dtype), cases.port("h0", [1, None, 3], dtype)]
    gives = [cases.port("y", None, dtype), cases.port("h", None, dtype)]
    model = cases.load(tmp_path, cases.model([node], ports, gives, tensors, 22))
    x, h0 = rng.standard_normal((5, 2, 4)).astype(dtype), rng.standard_normal((1, 2, 3)).astype(dtype)
    y, h = model.run(None, {"x": x, "h0": h0})
    wide = {name: array.astype("f8") for name, array in tensors.items()}
    exact = reference.run(spec_from_node("GRU", {}, wide, opset=22), x.swapaxes(0, 1).astype("f8"), h0.astype("f8"))
    assert y.dtype == h.dtype == dtype
    tolerance = {"DOUBLE": 1e-14, "FLOAT16": 1e-3, "BFLOAT16": 1e-2}[code]
    np.testing.assert_allclose(y[:, 0].swapaxes(0, 1).astype("f8"), exact[0], atol=tolerance)
    with pytest.raises(TypeError, match="feed has 'x' of type float32, wanted"):
        model.run(None, {"x": x.astype("f4"), "h0": h0})


def run_with(rng, tmp_path, op="RNN", **attributes):
    """A node's output on fixed weights and inputs."""
    rng = np.random.default_rng(0)
    model = cases.load(tmp_path, one_node(rng, op, **attributes))
    return model.run(["y"], {"x": rng.standard_normal((5, 2, 4)).astype("f4")})[0]


DEFAULTS = {
    "Affine": {"activation_alpha": [1.0], "activation_beta": [0.0]},
    "Elu": {"activation_alpha": [1.0]},
    "HardSigmoid": {"activation_alpha": [0.2], "activation_beta": [0.5]},
    "LeakyRelu": {"activation_alpha": [0.01]},
    "ThresholdedRelu": {"activation_alpha": [1.0]},
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_default_parameters(tmp_path, rng, name):
    """Of the operators of the same names; onnxruntime takes 0 for Affine and ThresholdedRelu."""
    plain = run_with(rng, tmp_path, activations=[name])
    assert np.array_equal(plain, run_with(rng, tmp_path, activations=[name], **DEFAULTS[name]))
    other = {key: [value + 0.25 for value in values] for key, values in DEFAULTS[name].items()}
    assert not np.array_equal(plain, run_with(rng, tmp_path, activations=[name], **other))


def test_the_default_of_rnn_written_out(tmp_path, rng):
    """ONNX's default has an activation for each of two directions, also where there is one."""
    assert np.array_equal(run_with(rng, tmp_path), run_with(rng, tmp_path, activations=["Tanh", "Tanh"]))


def test_parameters_for_every_function(tmp_path, rng):
    """Numbers also for functions that have none are taken where both readings of them agree."""
    plain = run_with(rng, tmp_path, "GRU", activations=["HardSigmoid", "Tanh"], activation_alpha=[0.3])
    both = run_with(rng, tmp_path, "GRU", activations=["HardSigmoid", "Tanh"], activation_alpha=[0.3, 0.7])
    assert np.array_equal(plain, both)


W, R, B = (np.zeros(shape, "f4") for shape in ((1, 12, 4), (1, 12, 3), (1, 24)))

REFUSED = {
    "opset": ({"opset": 6}, r"LSTM node 'rnn': LSTM is of opset 6, wanted 7 or later"),
    "unknown attribute": ({"foo": 1}, "attribute 'foo' is not one of LSTM of opset 17"),
    "attribute of another operator": ({"linear_before_reset": 1}, "attribute 'linear_before_reset' is not one of LSTM"),
    "layout before 14": ({"layout": 1, "opset": 13}, "attribute 'layout' is not one of LSTM of opset 13"),
    "layout 2": ({"layout": 2}, "layout is 2, wanted 0 or 1"),
    "direction": ({"direction": "Forward"}, "direction is 'Forward', wanted forward, reverse or bidirectional"),
    "clip of zero": ({"clip": 0.0}, "clip is 0.0, wanted a positive number"),
    "negative clip": ({"clip": -1.0}, "clip is -1.0, wanted a positive number"),
    "clip that is no number": ({"clip": float("nan")}, "clip is nan, wanted a positive number"),
    "clip of another type": ({"clip": 1}, "clip is 1, wanted a number"),
    "hidden_size of another type": ({"hidden_size": 3.0}, "hidden_size is 3.0, wanted an integer"),
    "hidden_size": ({"hidden_size": 5}, r"hidden_size is 5, but R has shape \(1, 12, 3\): its last axis is 3 long"),
    "input_forget": ({"input_forget": 2}, "input_forget is 2, wanted 0 or 1"),
    "too few activations": ({"activations": ["Tanh"]}, "activations has 1 names, wanted 3"),
    "too many activations": ({"activations": ["Tanh"] * 6}, "activations has 6 names, wanted 3"),
    "activations that are numbers": ({"activations": [1, 2, 3]}, "activations is .*, wanted a list of names"),
    "unknown activations": (
        {"activations": ["Tanh", "Gelu", "linear"]},
        "activations has 'Gelu', 'linear', which ONNX does not have",
    ),
    "ScaledTanh": (
        {"activations": ["Sigmoid", "ScaledTanh", "Tanh"]},
        "alpha and beta of ScaledTanh are missing, wanted a number: ONNX has no default",
    ),
    "alphas": (
        {"activations": ["Sigmoid", "LeakyRelu", "Tanh"], "activation_alpha": [0.1, 0.2, 0.3]},
        "activation_alpha has 3 numbers, but 1 of the activations has one",
    ),
    "alphas of none": (
        {"activation_alpha": [0.1]},
        "activation_alpha has 1 numbers, but 0 of the activations have one",
    ),
    "W": ({"changes": {"W": W[:, :8]}}, r"W has shape \(1, 8, 4\), wanted \(1, 12, 4\)"),
    "W of two axes": ({"changes": {"W": W[0]}}, r"W has shape \(12, 4\), wanted \(1, 12, 0\)"),
    "R of two axes": ({"changes": {"R": R[0]}}, r"R has shape \(12, 3\), wanted \(D, 4H, H\)"),
    "no units": ({"changes": {"W": W[:, :0], "R": R[:, :0, :0], "B": B[:, :0]}}, "wanted at least one hidden unit"),
    "directions": (
        {"direction": "bidirectional", "changes": {"R": R}},
        r"R has shape \(1, 12, 3\), wanted \(2, 12, 3\)",
    ),
    "B": ({"changes": {"B": B[:, :12]}}, r"B has shape \(1, 12\), wanted \(1, 24\)"),
    "B of another type": ({"changes": {"B": B.astype("f8")}}, "B is float64, but W is float32"),
    "integers": ({"changes": {"W": W.astype("i4")}}, "W is int32, wanted float32, float64, float16, bfloat16"),
    "no W": ({"changes": {"W": None}}, "it has no W"),
    "too many inputs": ({"op": "GRU", "extra": ["", "", "", ""]}, "it has 8 inputs, which are too many"),
    "state twice": ({"op": "GRU", "extra": ["", "", "B"]}, "it has 7 inputs, which are too many"),
    "several": ({"clip": 0.0, "layout": 3}, "layout is 3, wanted 0 or 1; clip is 0.0"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(tmp_path, rng, name):
    options, reason = REFUSED[name]
    with pytest.raises(ValueError, match=reason):
        cases.load(tmp_path, one_node(rng, **options))


def test_a_newer_opset_than_the_package_knows(tmp_path, rng):
    newest = onnx.defs.onnx_opset_version()
    with pytest.raises(ValueError, match=f"it has opset {newest + 1}, but the installed package onnx ends at {newest}"):
        cases.load(tmp_path, one_node(rng, opset=newest + 1))


def test_all_reasons_of_all_nodes(tmp_path, rng):
    tensors = cases.weights(rng, "GRU", 4, 3)
    nodes = [
        cases.node("GRU", ["x", "W", "R", "B"], ["y"], name="one", clip=-1.0),
        cases.node("GRU", ["x", "W", "R"], ["z"], name="two", hidden_size=7),
    ]
    made = cases.model(nodes, [cases.port("x", [None, None, 4])], ["y", "z"], tensors)
    with pytest.raises(
        ValueError, match=r"model\.onnx: GRU node 'one': clip is -1\.0.*; GRU node 'two': hidden_size is 7"
    ):
        cases.load(tmp_path, made)


def test_inputs_that_do_not_fit(tmp_path, rng):
    tensors = cases.weights(rng, "LSTM", 4, 3)
    node = cases.node("LSTM", ["x", "W", "R", "B", "lens", "h0"], ["y", "h"], name="rnn")
    ports = [cases.port("x", [None, None, 4]), cases.port("lens", [None], np.int32), cases.port("h0", [1, None, 3])]
    model = cases.load(tmp_path, cases.model([node], ports, ["y", "h"], tensors))
    x, h0, lens = np.zeros((5, 2, 4), "f4"), np.zeros((1, 2, 3), "f4"), np.array([5, 2], np.int32)
    called = r"LSTM node 'rnn' \(x is 'x', lengths is 'lens', state h is 'h0'\): "
    for changes, reason in (
        ({"x": x[0]}, r"feed has 'x' of shape \(2, 4\), wanted \(\?, \?, 4\)"),
        ({"x": x[..., :3]}, called + "x has shape .*: its last axis is 3 wide, wanted 4"),
        ({"lens": lens + 1}, called + r"lengths\[0\] is 6, but x has 5 steps"),
        ({"lens": lens[:1]}, called + r"lengths has shape \(1,\), wanted \(2,\)"),
        ({"h0": h0[:, :1]}, called + r"state h has shape \(1, 1, 3\), wanted \(1, 2, 3\)"),
    ):
        with pytest.raises(ValueError, match=reason):
            model.run(None, {"x": x, "lens": lens, "h0": h0} | changes)
    for steps, rows in ((0, 2), (5, 0), (0, 0)):
        y, h = model.run(None, {"x": x[:steps, :rows], "lens": lens[:rows] * (steps > 0), "h0": h0[:, :rows]})
        assert y.shape == (steps, 1, rows, 3) and h.shape == (1, rows, 3)


def test_weights_that_come_with_a_call(tmp_path, rng):
    tensors = cases.weights(rng, "GRU", 4, 3)
    node = cases.node("GRU", ["x", "W", "R", "B"], ["y"], name="rnn", hidden_size=3)
    ports = [cases.port("x", [None, None, 4])] + [cases.port(name, array.shape) for name, array in tensors.items()]
    made = cases.model([node], ports, ["y"], {})
    model = cases.load(tmp_path, made)
    for _ in range(2):
        feed = cases.weights(rng, "GRU", 4, 3) | {"x": rng.standard_normal((5, 2, 4)).astype("f4")}
        cases.agree(model.run(None, feed), cases.theirs(made, feed))
    with pytest.raises(ValueError, match=r"GRU node 'rnn': W has shape \(1, 5, 4\), wanted \(1, 9, 4\)"):
        model.run(None, feed | {"W": feed["W"][:, :5]})
    with pytest.raises(ValueError, match="GRU node 'rnn': its weights are not constant"):
        fastrnn.load(tmp_path / "model.onnx", prefix="rnn")
