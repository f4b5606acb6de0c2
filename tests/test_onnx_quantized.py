"""DynamicQuantizeLSTM, which onnxruntime makes of an LSTM: it runs here on the weights that it stands for."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import onnx_cases as cases  # noqa: E402
from onnx_cases import node, port  # noqa: E402

import fastrnn  # noqa: E402
from fastrnn import cli  # noqa: E402

H, I = 19, 11  # noqa: E741 - the sizes' usual names
LENGTHS = np.array(cases.LENGTHS, "i4")
OPERATOR = {"domain": "com.microsoft", "name": "rnn", "direction": "bidirectional", "hidden_size": H}


def quantize(array, per_channel, dtype):
    """W (D, 4*H, K) as (D, K, 4*H) integers, scales and zero points, and what these stand for."""
    turned = array.swapaxes(1, 2).astype(np.float64)
    low, high = (bound(turned, axis=1 if per_channel else (1, 2)) for bound in (np.min, np.max))
    levels = np.iinfo(dtype)
    if dtype == np.int8 or per_channel:  # onnxruntime takes one zero point for all channels
        scale, zero = np.maximum(-low, high) / 127, np.full(low.shape, 0 if dtype == np.int8 else 128)
    else:
        scale = (high - low) / 255
        zero = np.round(-low / scale)
    scale = scale.astype(np.float32)
    wide = (scale.reshape(2, 1, -1), zero.reshape(2, 1, -1))
    integers = np.clip(np.round(turned / wide[0]) + wide[1], levels.min, levels.max).astype(dtype)
    stands_for = (integers.astype("f4") - wide[1].astype("f4")) * wide[0]
    return integers, scale, zero.astype(dtype), np.ascontiguousarray(stands_for.swapaxes(1, 2))


def models(rng, per_channel=False, dtype=np.int8, **changes):
    """A quantized node behind a Cos, and an LSTM with the weights that it stands for."""
    plain = cases.weights(rng, "LSTM", I, H, 2)
    tensors = {"B": plain["B"]}
    for name in ("W", "R"):
        parts = quantize(plain[name], per_channel, dtype)
        tensors |= dict(zip((name, f"{name}_scale", f"{name}_zero"), parts[:3], strict=True))
        plain[name] = parts[3]
    tensors = {name: array for name, array in (tensors | changes).items() if array is not None}
    states = ["lens", "h0", "c0"]
    quantization = [name if name in tensors else "" for name in ("W_scale", "W_zero", "R_scale", "R_zero")]
    inputs = [port("x", [None, None, I]), port("lens", [None], np.int32)]
    inputs += [port(state, [2, None, H]) for state in states[1:]]
    outputs = ["y", "h", "c"]
    domains = {"com.microsoft": 1}
    nodes = [node("Cos", ["x"], ["a"])]
    quantized = node("DynamicQuantizeLSTM", ["a", "W", "R", "B", *states, "", *quantization], outputs, **OPERATOR)
    lstm = node("LSTM", ["a", "W", "R", "B", *states], outputs, direction="bidirectional", hidden_size=H)
    made = cases.model([*nodes, quantized], inputs, outputs, tensors, domains=domains)
    return made, cases.model([*nodes, lstm], inputs, outputs, plain)


def draw(rng, lengths):
    B = len(lengths)
    states = {name: rng.uniform(-1, 1, (2, B, H)).astype("f4") for name in ("h0", "c0")}
    return {"x": rng.standard_normal((7, B, I)).astype("f4"), "lens": lengths} | states


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
@pytest.mark.parametrize("per_channel", [False, True])
def test_it_runs_on_the_weights_that_it_stands_for(tmp_path, rng, per_channel, dtype):
    made, plain = models(rng, per_channel, dtype)
    model = cases.load(tmp_path, made)
    assert [part.engine for part in model.parts] == ["onnxruntime", "fastrnn"]
    feed = draw(rng, LENGTHS)
    found = model.run(None, feed)
    for ours, theirs in zip(found, cases.load(tmp_path, plain).run(None, feed), strict=True):
        assert np.array_equal(ours, theirs)
    feed = draw(rng, LENGTHS[LENGTHS > 0])  # of an empty row onnxruntime makes the state zero
    there = cases.theirs(made, feed)
    cases.agree(model.run(None, feed), cases.theirs(plain, feed))
    for ours, theirs in zip(model.run(None, feed), there, strict=True):  # it rounds inputs and states to 8 bits
        np.testing.assert_allclose(ours, theirs, atol=0.05)
    assert any(abs(ours - theirs).max() > 1e-5 for ours, theirs in zip(model.run(None, feed), there, strict=True))


def test_commands_and_smaller_weights(tmp_path, rng, capsys):
    made, _ = models(rng)
    model = cases.load(tmp_path, made)
    path = str(tmp_path / "model.onnx")
    assert cli.main(["inspect", path]) == 0
    shown = capsys.readouterr().out
    assert "DynamicQuantizeLSTM node 'rnn'" in shown and f"LSTM of {I} inputs, {H} units, both directions" in shown
    assert cli.main(["verify", path]) == 0 and cli.main(["verify", path, "--prefix", "rnn"]) == 0
    layer = fastrnn.load(path, prefix="rnn")
    feed = draw(rng, LENGTHS)
    y, _ = layer(np.cos(feed["x"]), (feed["h0"], feed["c0"]), lengths=LENGTHS)
    np.testing.assert_allclose(y.reshape(7, -1, 2, H).swapaxes(1, 2), model.run(["y"], feed)[0], atol=1e-6)
    small = fastrnn.load(path, weight_dtype="int8")
    np.testing.assert_allclose(small.run(["y"], feed)[0], model.run(["y"], feed)[0], atol=0.05)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"W": np.ones((2, I, 4 * H), "f4")}, "W is float32, wanted int8 or uint8"),
        ({"R_zero": None}, "it has no R_zero_point"),
        ({"W_scale": np.ones(3, "f4")}, r"of shapes \(3,\) and \(2,\), wanted \(D,\) or \(D, 4H\)"),
        ({"R": np.ones((2, H - 1, 4 * H), "i1")}, r"wanted \(2, 72, 11\)"),
        ({"R": np.ones((2, H), "i1")}, r"R has shape \(2, 19\), wanted three axes"),
    ],
)
def test_refused(tmp_path, rng, changes, reason):
    with pytest.raises(ValueError, match=rf"DynamicQuantizeLSTM node 'rnn': .*{reason}"):
        cases.load(tmp_path, models(rng, **changes)[0])


def test_weights_that_come_with_a_call(tmp_path, rng):
    made, _ = models(rng)
    kept = [tensor for tensor in made.graph.initializer if tensor.name != "R_scale"]
    del made.graph.initializer[:]
    made.graph.initializer.extend(kept)
    made.graph.input.append(port("R_scale", [2]))
    with pytest.raises(ValueError, match="DynamicQuantizeLSTM node 'rnn': its weights are not constant"):
        cases.load(tmp_path, made)
