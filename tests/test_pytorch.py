"""The engine compared with PyTorch in float32, and what the importer accepts and refuses."""

import cases
import numpy as np
import pytest
from bits import assert_same_bits

import fastrnn
from fastrnn.importers.pytorch import spec_from_module, spec_from_state_dict

torch = pytest.importorskip("torch")
import live_torch  # noqa: E402

KINDS = {
    "lstm": ("lstm", {}),
    "lstm-proj": ("lstm", {"proj_size": 3}),
    "gru": ("gru", {}),
    "rnn-tanh": ("rnn", {"nonlinearity": "tanh"}),
    "rnn-relu": ("rnn", {"nonlinearity": "relu"}),
}
TOLERANCE = 5e-6


def call(layer, x, state=None, lengths=None):
    y, last = layer(x, state, lengths=lengths)
    return (y, *last) if isinstance(last, tuple) else (y, last, None)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("name", KINDS)
def test_equals_torch(rng, name, num_layers, bidirectional, bias, batch_first):
    kind, options = KINDS[name]
    module = live_torch.module(
        kind, 6, 11, num_layers, bidirectional=bidirectional, bias=bias, batch_first=batch_first, **options
    )
    layer = cases.LAYERS[kind].from_torch(module)
    batch = cases.random_batch(rng, spec_from_module(module), (4, 1, 9, 4, 1, 9, 2))
    x = batch.x if batch_first else batch.x.swapaxes(0, 1).copy()
    for lengths in (None, batch.lengths):
        steps = np.nan_to_num(x) if lengths is None else x
        for state in (None, batch.state):
            cases.assert_close(
                call(layer, steps, state, lengths), live_torch.run(module, steps, state, lengths), TOLERANCE
            )


@pytest.mark.parametrize("kind", cases.LAYERS)
@pytest.mark.parametrize("size", range(1, 66))
def test_every_size_from_1_to_65(rng, kind, size):
    batch_size = 1 + size % 17
    for input_size, hidden_size in ((size, 66 - size), (3, size)):
        module = live_torch.module(kind, input_size, hidden_size, batch_first=True)
        layer = cases.LAYERS[kind].from_torch(module)
        batch = cases.random_batch(rng, spec_from_module(module), tuple(rng.integers(1, 6, batch_size).tolist()))
        found = call(layer, batch.x, batch.state, batch.lengths)
        cases.assert_close(found, live_torch.run(module, batch.x, batch.state, batch.lengths), TOLERANCE)


@pytest.mark.parametrize("kind", cases.LAYERS)
@pytest.mark.parametrize(("input_size", "hidden_size"), [(96, 127), (257, 200), (1, 257), (200, 96), (513, 129)])
def test_odd_big_sizes(rng, kind, input_size, hidden_size):
    module = live_torch.module(kind, input_size, hidden_size, 2, bidirectional=True, batch_first=True)
    layer = cases.LAYERS[kind].from_torch(module)
    batch = cases.random_batch(rng, spec_from_module(module), (5, 2, 7, 1, 7, 7, 3))
    found = call(layer, batch.x, batch.state, batch.lengths)
    cases.assert_close(found, live_torch.run(module, batch.x, batch.state, batch.lengths), TOLERANCE)


@pytest.mark.parametrize("proj_size", [1, 2, 15, 16, 17, 32, 33])
def test_projection_sizes(rng, proj_size):
    module = live_torch.module("lstm", 5, 34, 2, bidirectional=True, batch_first=True, proj_size=proj_size)
    batch = cases.random_batch(rng, spec_from_module(module), (5, 2, 7, 1, 7, 7, 3))
    found = call(fastrnn.LSTM.from_torch(module), batch.x, batch.state, batch.lengths)
    cases.assert_close(found, live_torch.run(module, batch.x, batch.state, batch.lengths), TOLERANCE)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 16, 17, 31, 32, 33])
@pytest.mark.parametrize("kind", cases.LAYERS)
def test_every_batch_size(rng, kind, batch_size):
    module = live_torch.module(kind, 20, 24, batch_first=True)
    batch = cases.random_batch(rng, spec_from_module(module), tuple(rng.integers(1, 12, batch_size).tolist()))
    found = call(cases.LAYERS[kind].from_torch(module), batch.x, batch.state, batch.lengths)
    cases.assert_close(found, live_torch.run(module, batch.x, batch.state, batch.lengths), TOLERANCE)


@pytest.mark.parametrize("kind", cases.LAYERS)
def test_float64(rng, kind):
    module = live_torch.module(kind, 7, 9, 2, bidirectional=True, batch_first=True, dtype=torch.float64)
    batch = cases.random_batch(rng, spec_from_module(module), (5, 2, 7, 1, 7), np.float64)
    found = call(cases.LAYERS[kind].from_torch(module), batch.x, batch.state, batch.lengths)
    cases.assert_close(found, live_torch.run(module, batch.x, batch.state, batch.lengths), 1e-12)


@pytest.mark.parametrize("name", KINDS)
def test_state_dict_equals_module(rng, name):
    kind, options = KINDS[name]
    module = live_torch.module(kind, 6, 11, 2, bidirectional=True, batch_first=True, **options)
    options.pop("proj_size", None)
    model = {f"encoder.{key}": value for key, value in module.state_dict().items()} | {"head.weight": torch.ones(2)}
    layer = cases.LAYERS[kind].from_state_dict(model, "encoder.", **options)
    x = rng.standard_normal((2, 4, 6)).astype(np.float32)
    for a, b in zip(call(layer, x), call(cases.LAYERS[kind].from_torch(module), x), strict=True):
        np.testing.assert_array_equal(a, b)
    assert layer.batch_first


def test_module_tells_sizes_and_batch_first():
    spec = spec_from_module(torch.nn.LSTM(3, 5, 2, bidirectional=True, proj_size=4))
    assert (spec.input_size, spec.hidden_size, spec.num_layers, spec.proj_size) == (3, 5, 2, 4)
    assert spec.bidirectional and not spec.batch_first
    assert spec_from_module(torch.nn.RNN(3, 5, nonlinearity="relu", batch_first=True)).batch_first


def weights(kind="lstm", **options):
    return {key: value.numpy() for key, value in live_torch.module(kind, 3, 4, 2, **options).state_dict().items()}


def test_weights_are_copied():
    arrays = weights()
    spec = spec_from_state_dict("lstm", arrays)
    before = spec.cells[0].weight_hh.copy()
    for array in arrays.values():
        array[:] = np.nan
    np.testing.assert_array_equal(spec.cells[0].weight_hh, before)


def test_float16_is_widened_exactly():
    arrays = {name: array.astype(np.float16) for name, array in weights().items()}
    spec = spec_from_state_dict("lstm", arrays)
    assert spec.cells[1].weight_ih.dtype == np.float32
    np.testing.assert_array_equal(spec.cells[1].weight_ih, arrays["weight_ih_l1"])


def test_any_strides_and_byte_order():
    arrays = {name: np.asfortranarray(array).astype(">f4") for name, array in weights().items()}
    spec = spec_from_state_dict("lstm", arrays)
    np.testing.assert_array_equal(spec.cells[1].weight_ih, weights()["weight_ih_l1"])


def test_one_message_lists_every_fault():
    arrays = {f"rnn.{name}": array for name, array in weights(bidirectional=True).items()}
    del arrays["rnn.bias_hh_l1_reverse"]
    arrays["rnn.weight_ih_l1"] = arrays["rnn.weight_ih_l1"][:, :7]
    arrays["rnn.weight_hh_l0_reverse"] = arrays["rnn.weight_hh_l0_reverse"].astype(np.float64)
    arrays["rnn.extra"] = np.ones(3)
    with pytest.raises(ValueError) as caught:
        spec_from_state_dict("lstm", arrays, "rnn.")
    message = str(caught.value)
    assert "rnn.bias_hh_l1_reverse is missing, wanted shape (16,)" in message
    assert "rnn.weight_ih_l1 has shape (16, 7), wanted (16, 8)" in message
    assert "rnn.weight_hh_l0_reverse is float64, wanted float32" in message
    assert "rnn.extra is surplus" in message
    assert message.count(";") == 3


@pytest.mark.parametrize("bad", [np.ones((16, 3), int), np.ones((16, 3), complex), np.ones((16, 3), object), [[1.0]]])
def test_wrong_types_are_refused(bad):
    with pytest.raises(TypeError, match=r"weight_ih_l0 is .*wanted a float32 or float64 array"):
        spec_from_state_dict("lstm", weights() | {"weight_ih_l0": bad})


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.complex64, torch.int8, torch.bool])
def test_other_types_of_tensors_are_refused(dtype):
    name = str(dtype).removeprefix("torch.")
    with pytest.raises(TypeError, match=rf"weight_ih_l0 is (torch\.)?{name}, wanted a float32 or float64 array"):
        spec_from_state_dict("lstm", weights() | {"weight_ih_l0": torch.ones(16, 3).to(dtype)})


#: Every number that a bfloat16 holds: the upper half of a float32.
PATTERNS = np.arange(1 << 16, dtype=np.uint32).reshape(256, 256) << 16
PATTERNS[np.isnan(PATTERNS.view(np.float32))] = 0


def bfloat16_of_torch():
    return torch.from_numpy(PATTERNS.view(np.float32)).to(torch.bfloat16).requires_grad_()


def bfloat16_of_ml_dtypes():
    return PATTERNS.view(np.float32).astype(pytest.importorskip("ml_dtypes").bfloat16)


@pytest.mark.parametrize("make", [bfloat16_of_torch, bfloat16_of_ml_dtypes])
def test_bfloat16_is_widened_exactly(make):
    spec = spec_from_state_dict("rnn", {"weight_ih_l0": make(), "weight_hh_l0": make()}, nonlinearity="tanh")
    for found in (spec.cells[0].weight_ih, spec.cells[0].weight_hh):
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found.view(np.uint32), PATTERNS)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", cases.LAYERS)
def test_half_modules_become_float32_layers(rng, kind, dtype):
    half = live_torch.module(kind, 5, 7, 2, batch_first=True, dtype=dtype)
    wide = live_torch.module(kind, 5, 7, 2, batch_first=True)
    wide.load_state_dict(half.state_dict())
    x = rng.standard_normal((2, 4, 5)).astype(np.float32)
    layer = cases.LAYERS[kind].from_torch(half)
    assert layer.dtype == np.float32
    assert_same_bits(call(layer, x)[0], call(cases.LAYERS[kind].from_torch(wide), x)[0])


def test_tensors_without_data_are_refused():
    with torch.device("meta"):
        module = torch.nn.LSTM(3, 4)
    with pytest.raises(TypeError, match=r"bias_hh_l0 is a tensor without data, on the meta device"):
        fastrnn.LSTM.from_torch(module)


def test_sparse_tensors_are_refused_as_such(rng):
    weights = torch.nn.LSTM(3, 4).state_dict()
    weights["weight_ih_l0"] = weights["weight_ih_l0"].to_sparse()
    with pytest.raises(TypeError, match=r"weight_ih_l0 is torch.float32 of layout torch.sparse_coo, wanted a float32"):
        fastrnn.LSTM.from_state_dict(weights)


@pytest.mark.parametrize("bad", ["m.pt", b"m.pt", None, [np.ones(3)], 3, {1, 2}, torch.nn.LSTM(3, 4)])
def test_no_mapping_is_refused(bad):
    with pytest.raises(TypeError, match=rf"mapping is {type(bad).__name__}\b.*wanted a mapping of names to arrays"):
        fastrnn.LSTM.from_state_dict(bad)


@pytest.mark.parametrize("bad", [None, 3, b"rnn.", ["rnn."]])
def test_no_prefix_is_refused(bad):
    with pytest.raises(TypeError, match=r"prefix is .*, wanted a str"):
        fastrnn.LSTM.from_state_dict(weights(), bad)


def under(prefix, kind="lstm"):
    return {prefix + name: array for name, array in weights(kind).items()}


@pytest.mark.parametrize(
    ("names", "prefix", "hint"),
    [
        (("rnn.",), "", "prefix is '', did you mean prefix='rnn.'?"),
        (("rnn.",), "lstm.", "lstm.weight_ih_l0 is missing: prefix is 'lstm.', did you mean prefix='rnn.'?"),
        (("rnn.",), "rn", "did you mean prefix='rnn.'?"),
        (("a.enc.", "a.dec."), "a", "did you mean one of prefix='a.enc.', prefix='a.dec.'?"),
        (("",), "enc.", "did you mean prefix=''?"),
        ([f"{i}." for i in range(99)], "", "did you mean one of prefix='0.', prefix='1.', "),
    ],
)
def test_a_prefix_is_suggested(names, prefix, hint):
    model = {"head.weight": np.ones(3)}
    for name in names:
        model |= under(name)
    with pytest.raises(ValueError) as caught:
        fastrnn.LSTM.from_state_dict(model, prefix)
    assert hint in str(caught.value) and len(str(caught.value)) < 300


def test_a_prefix_may_stand_without_its_dot():
    model = under("encoder.rnn.") | under("encoder.rnn2.", "gru") | {"encoder.rnn.norm": np.ones(3)}
    for prefix in ("encoder.rnn", "encoder.rnn."):
        with pytest.raises(ValueError) as caught:
            fastrnn.LSTM.from_state_dict(model, prefix)
        assert str(caught.value) == "encoder.rnn.norm is surplus, wanted names such as encoder.rnn.weight_ih_l0"
    del model["encoder.rnn.norm"]
    spec = spec_from_state_dict("lstm", model, "encoder.rnn")
    np.testing.assert_array_equal(spec.cells[1].weight_ih, weights()["weight_ih_l1"])


def test_a_prefix_that_stands_literally_comes_first():
    assert spec_from_state_dict("lstm", under("rnn_"), "rnn_").num_layers == 2
    both = under("rnn") | under("rnn.", "gru")
    with pytest.raises(ValueError, match=r"rnn\.weight_ih_l0 is surplus"):
        spec_from_state_dict("lstm", both, "rnn")
    assert spec_from_state_dict("gru", both, "rnn.").num_layers == 2


def test_no_weights_at_all():
    with pytest.raises(ValueError, match=r"enc\.weight_ih_l0 is missing, wanted shape"):
        spec_from_state_dict("gru", {"head.weight": np.ones(3)}, "enc.")


CELLS = {"lstm": torch.nn.LSTMCell, "gru": torch.nn.GRUCell, "rnn": torch.nn.RNNCell}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", [name for name in KINDS if name != "lstm-proj"])
def test_cells_equal_torch(rng, name, bias):
    """A cell becomes a layer of its kind, from the module and from its state dict."""
    kind, options = KINDS[name]
    torch.manual_seed(3)
    cell = CELLS[kind](5, 7, bias=bias, **options)
    x = rng.standard_normal((3, 6, 5)).astype(np.float32)
    states = [rng.standard_normal((3, 7)).astype(np.float32) for _ in range(1 + (kind == "lstm"))]
    with torch.no_grad():
        last, steps = tuple(map(torch.from_numpy, states)), []
        for step in torch.from_numpy(x.swapaxes(0, 1).copy()):
            last = cell(step, last if kind == "lstm" else last[0])
            last = last if kind == "lstm" else (last,)
            steps.append(last[0].numpy())
    layers = (
        cases.LAYERS[kind].from_torch(cell),
        cases.LAYERS[kind].from_state_dict(cell.state_dict(), **options),
        cases.LAYERS[kind].from_state_dict(
            {f"cells.0.{k}": v for k, v in cell.state_dict().items()}, "cells.0", **options
        ),
    )
    for layer in layers:
        assert layer.batch_first and layer.num_layers == 1
        given = tuple(part[None] for part in states)
        found = call(layer, x, given if kind == "lstm" else given[0])
        wanted = (np.stack(steps, 1), last[0].numpy()[None], last[1].numpy()[None] if kind == "lstm" else None)
        cases.assert_close(found, wanted, TOLERANCE)


def test_names_of_cells_and_layers_do_not_mix():
    arrays = weights() | {"weight_ih": np.ones((16, 3), np.float32)}
    with pytest.raises(ValueError, match=r"^weight_ih is surplus, wanted names such as weight_ih_l0$"):
        fastrnn.LSTM.from_state_dict(arrays)
    cell = {name: array.numpy() for name, array in torch.nn.LSTMCell(3, 4).state_dict().items()}
    with pytest.raises(ValueError, match=r"^weight_hr is surplus, wanted names such as weight_ih$"):
        fastrnn.LSTM.from_state_dict(cell | {"weight_hr": np.ones((2, 4), np.float32)})
    with pytest.raises(ValueError, match=r"; weight_hh is missing, wanted shape \(4 \* hidden_size, hidden_size\)"):
        fastrnn.LSTM.from_state_dict({"weight_ih": cell["weight_ih"]})


@pytest.mark.parametrize("isa", fastrnn.info()["isas"])
def test_the_instruction_set_by_argument(isa):
    module = torch.nn.LSTM(3, 4)
    assert fastrnn.LSTM.from_torch(module, backend="fused", isa=isa).isa == isa
    assert fastrnn.LSTM.from_state_dict(module.state_dict(), backend="fused", isa=isa).isa == isa
    for make, source in ((fastrnn.LSTM.from_torch, module), (fastrnn.LSTM.from_state_dict, module.state_dict())):
        with pytest.raises(ValueError, match="isa is 'sse9'"):
            make(source, isa="sse9")


def test_a_far_layer_costs_nothing():
    with pytest.raises(ValueError, match=r"_l999999 is given, but there are only 1"):
        spec_from_state_dict("rnn", {"weight_hh_l999999": np.ones((2, 2), np.float32)}, nonlinearity="tanh")


def test_weights_of_another_kind_are_refused():
    with pytest.raises(ValueError, match=r"weight_ih_l0 has shape \(16, 3\), wanted \(12, 3\)"):
        fastrnn.GRU.from_state_dict(weights("lstm"))


def test_modules_of_another_kind_are_refused():
    with pytest.raises(ValueError, match="lstm"):
        fastrnn.GRU.from_torch(torch.nn.LSTMCell(3, 4))
    with pytest.raises(TypeError, match="Linear"):
        fastrnn.LSTM.from_torch(torch.nn.Linear(3, 4))
    with pytest.raises((TypeError, ValueError), match="lstm"):
        fastrnn.GRU.from_torch(torch.nn.LSTM(3, 4))


def test_a_state_dict_of_an_rnn_needs_the_nonlinearity(rng):
    """The weights do not tell a ReLU network from a tanh network, so there is no default."""
    for module in (torch.nn.RNN(3, 4, nonlinearity="relu"), torch.nn.RNNCell(3, 4, nonlinearity="relu")):
        with pytest.raises(TypeError, match=r"nonlinearity is missing, wanted 'tanh' or 'relu'.*state dict"):
            fastrnn.RNN.from_state_dict(module.state_dict())
    x = rng.standard_normal((2, 5, 3)).astype(np.float32)
    found = {name: fastrnn.RNN.from_state_dict(weights("rnn"), nonlinearity=name)(x)[0] for name in ("tanh", "relu")}
    assert found["relu"].min() == 0 and found["tanh"].min() < -0.1


@pytest.mark.parametrize("bad", ["gelu", "Tanh", 1, ["tanh"]])
def test_unknown_nonlinearity_is_refused(bad):
    with pytest.raises(ValueError, match=r"nonlinearity is .*wanted 'tanh' or 'relu'"):
        fastrnn.RNN.from_state_dict(weights("rnn"), nonlinearity=bad)


@pytest.mark.parametrize("kind", ["lstm", "gru"])
@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
def test_only_an_rnn_has_a_nonlinearity(kind, nonlinearity):
    with pytest.raises(ValueError, match=f"nonlinearity is '{nonlinearity}', but only an RNN"):
        cases.LAYERS[kind].from_state_dict(weights(kind), nonlinearity=nonlinearity)
