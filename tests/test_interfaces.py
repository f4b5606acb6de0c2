"""fastrnn.keras and fastrnn.nn use the engine's own layers, and only plans take memory for each step."""

import ctypes
from dataclasses import replace

import keras_cases
import numpy as np
import pytest
from bits import assert_same_bits
from cases import LAYERS, random_spec
from tensorflow_cases import CELLS, INPUT_SIZE, make

from fastrnn import nn
from fastrnn.importers.pytorch import spec_from_state_dict
from fastrnn.importers.tensorflow import spec_from_variables, variables_from_cell
from fastrnn.spec import Activation, activations_of

#: interface and cell -> how to make it; the engine has one step kernel for each.
STANDARD = {
    "keras SimpleRNN": lambda rng: keras_cases.ours("rnn", weights=keras_cases.random_weights(rng, "rnn")),
    "keras LSTM": lambda rng: keras_cases.ours("lstm", weights=keras_cases.random_weights(rng, "lstm")),
    "keras GRU": lambda rng: keras_cases.ours("gru", weights=keras_cases.random_weights(rng, "gru")),
    "nn BasicRNNCell": lambda rng: make(CELLS["rnn"], 3),
    "nn BasicLSTMCell": lambda rng: make(CELLS["basic_lstm"], 3),
    "nn LSTMCell": lambda rng: make(CELLS["lstm"], 3),
}


def spec_of(layer):
    return layer.spec if isinstance(layer, nn.rnn_cell.RNNCell) else layer.describe(layer.get_weights())


@pytest.mark.parametrize("name", STANDARD)
def test_defaults_are_the_engines_own(rng, name):
    """Equal in every option and bit to a layer made of the same weights under PyTorch's names."""
    layer = STANDARD[name](rng)
    spec = spec_of(layer)
    (found,) = spec.cells
    parts = {part: getattr(found, part) for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
    parts["bias_hh"] = np.zeros_like(found.bias_ih) if found.bias_hh is None else found.bias_hh
    state_dict = {f"{part}_l0": array for part, array in parts.items()}
    nonlinearity = "tanh" if spec.kind == "rnn" else None
    (wanted,) = spec_from_state_dict(spec.kind, state_dict, nonlinearity=nonlinearity).cells
    assert activations_of(spec.kind, found) == activations_of(spec.kind, wanted)
    for option in ("weight_hr", "peephole", "cell_clip", "gate_clip", "proj_clip", "coupled"):
        assert getattr(found, option) == getattr(wanted, option), option
    assert spec.kind != "gru" or found.linear_before_reset == wanted.linear_before_reset

    engine = LAYERS[spec.kind].from_state_dict(state_dict, nonlinearity=nonlinearity)
    x, lengths = rng.standard_normal((5, 6, 3)).astype(np.float32), np.array([6, 0, 2, 6, 1])
    y, last = engine(x, lengths=lengths)
    h = last.h if spec.kind == "lstm" else last
    if name.startswith("nn"):
        outputs, state = nn.dynamic_rnn(layer, x, lengths)
        assert_same_bits((outputs, state.h if spec.kind == "lstm" else state), (y, h[0]))
    else:
        layer.return_sequences = layer.zero_output_for_mask = layer.return_state = True
        outputs, state, *_ = layer(x, mask=np.arange(6) < lengths[:, None])
        assert_same_bits((outputs, state), (y, h[0]))
    under = layer.layer if name.startswith("nn") else layer._engine
    assert (under.backend, under.isa, under.nbytes) == (engine.backend, engine.isa, engine.nbytes)


@pytest.mark.parametrize("kind", ["lstm", "rnn"])
@pytest.mark.parametrize("given", [("bias_ih", "bias_hh"), ("bias_ih",), ()], ids=str)
def test_variables_go_to_tensorflow_and_back(rng, kind, given):
    (plain,) = random_spec(rng, kind, 3, 4).cells
    plain = replace(plain, **{part: None for part in {"bias_ih", "bias_hh"} - set(given)})
    variables = variables_from_cell(kind, plain)
    (back,) = spec_from_variables(kind, variables, 4, activation=Activation.of("tanh")).cells
    assert_same_bits((back.weight_ih, back.weight_hh), (plain.weight_ih, plain.weight_hh))
    bias = np.zeros_like(back.bias_ih)
    for part in given:
        bias += getattr(plain, part)
    np.testing.assert_array_equal(back.bias_ih, bias)


def used_bytes():
    """Bytes allocated by the C allocator."""

    class Information(ctypes.Structure):
        _fields_ = [(name, ctypes.c_size_t) for name in "abcdHefUgh"]  # H: in separate mappings, U: in arenas

    function = ctypes.CDLL(None).mallinfo2
    function.restype = Information
    information = function()
    return information.U + information.H


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="needs glibc 2.33")
def test_static_plans_take_memory_for_each_step_and_dynamic_takes_none():
    mine = make(CELLS["multi_lstm"])
    mine.runner(None)  # prepares the weights, once

    def taken(build):
        before = used_bytes()
        kept = build()
        taken = used_bytes() - before
        del kept
        return taken

    plans = {steps: taken(lambda steps=steps: nn.StaticPlan(mine, steps)) for steps in (50_000, 100_000, 200_000)}
    a_step = plans[50_000] / 50_000
    assert a_step > 3 * 8  # three layers
    for steps, size in plans.items():
        assert abs(size / steps - a_step) < 0.1 * a_step
    x = np.zeros((1, 200_000, INPUT_SIZE), np.float32)
    nn.dynamic_rnn(mine, x)  # a first call keeps its workspace
    assert taken(lambda: nn.dynamic_rnn(mine, x)[1]) < 0.01 * plans[200_000]
