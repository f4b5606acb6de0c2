"""LayerSpec: what it accepts and refuses, and the names of activations."""

from dataclasses import replace

import numpy as np
import pytest
from cases import LAYERS, random_spec

import fastrnn
from fastrnn import nn
from fastrnn.spec import Activation, CellSpec, LayerSpec

NO_BOOLEANS = [0, 1, "False", "True", None, np.int64(1), 1.0, np.array([True]), []]
NO_INTEGERS = [3.0, "3", None, True, np.True_, np.float32(3), [3], 3j]


def test_the_classes_are_at_the_top():
    assert (fastrnn.LayerSpec, fastrnn.CellSpec, fastrnn.Activation) == (LayerSpec, CellSpec, Activation)
    assert {"LayerSpec", "CellSpec", "Activation"} <= set(fastrnn.__all__)


@pytest.mark.parametrize("bad", NO_BOOLEANS, ids=repr)
@pytest.mark.parametrize("name", ["bidirectional", "batch_first"])
def test_options_are_booleans(rng, name, bad):
    spec = replace(random_spec(rng, "gru", 3, 4), **{name: bad})
    for refuse in (spec.validate, lambda: fastrnn.GRU(spec)):
        with pytest.raises(TypeError, match=f"^{name} is .*, wanted True or False"):
            refuse()


@pytest.mark.parametrize("bad", NO_BOOLEANS, ids=repr)
@pytest.mark.parametrize("name", ["coupled", "linear_before_reset"])
def test_options_of_cells_are_booleans(rng, name, bad):
    spec = random_spec(rng, "lstm", 3, 4, 2)
    spec = replace(spec, cells=[spec.cells[0], replace(spec.cells[1], **{name: bad})])
    with pytest.raises(TypeError, match=f"^{name}_l1 is .*, wanted True or False"):
        spec.validate()


@pytest.mark.parametrize("bad", NO_BOOLEANS, ids=repr)
def test_from_state_dict_takes_booleans(rng, bad):
    weights = {"weight_ih_l0": np.ones((3, 2), np.float32), "weight_hh_l0": np.ones((3, 1), np.float32)}
    with pytest.raises(TypeError, match=r"batch_first is .*, wanted True or False"):
        fastrnn.GRU.from_state_dict(weights, batch_first=bad)


@pytest.mark.parametrize("bad", NO_BOOLEANS, ids=repr)
@pytest.mark.parametrize(
    "name",
    ["use_bias", "return_sequences", "return_state", "go_backwards", "stateful", "zero_output_for_mask", "reset_after"],
)
def test_keras_layers_take_booleans(name, bad):
    with pytest.raises(TypeError, match=f"^{name} is .*, wanted True or False"):
        fastrnn.keras.GRU(3, **{name: bad})


@pytest.mark.parametrize("bad", NO_BOOLEANS, ids=repr)
def test_tensorflows_face_takes_booleans(bad):
    weights = {"kernel": np.ones((5, 12), np.float32), "bias": np.zeros(12, np.float32)}
    for name in ("state_is_tuple", "use_peepholes"):
        with pytest.raises(TypeError, match=f"^{name} is .*, wanted True or False"):
            nn.rnn_cell.LSTMCell(3, weights=weights, **{name: bad})
    cell, x = nn.rnn_cell.LSTMCell(3, weights=weights), np.ones((2, 4, 2), np.float32)
    for refuse in (
        lambda: nn.rnn_cell.MultiRNNCell([cell], state_is_tuple=bad),
        lambda: nn.dynamic_rnn(cell, x, time_major=bad),
        lambda: nn.bidirectional_dynamic_rnn(cell, cell, x, time_major=bad),
        lambda: nn.stack_bidirectional_dynamic_rnn([cell], [cell], x, time_major=bad),
    ):
        with pytest.raises(TypeError, match=r"^(state_is_tuple|time_major) is .*, wanted True or False"):
            refuse()


@pytest.mark.parametrize("bad", NO_INTEGERS, ids=repr)
@pytest.mark.parametrize("name", ["input_size", "hidden_size", "num_layers", "proj_size"])
def test_sizes_are_integers(rng, name, bad):
    spec = replace(random_spec(rng, "lstm", 3, 4), **{name: bad})
    with pytest.raises(TypeError, match=f"^{name} is .*, wanted an integer"):
        spec.validate()


@pytest.mark.parametrize("bad", NO_INTEGERS, ids=repr)
def test_numbers_of_rows_and_steps_are_integers(rng, bad):
    layer = fastrnn.LSTM(random_spec(rng, "lstm", 3, 4))
    with pytest.raises(TypeError, match=r"^batch_size is .*, wanted an integer"):
        layer.stream(bad)
    with pytest.raises(TypeError, match=r"^num_steps is .*, wanted an integer"):
        layer.unroll(bad)
    with pytest.raises(TypeError, match=r"^units is .*, wanted an integer"):
        fastrnn.keras.LSTM(bad)


def test_numpys_types_are_taken(rng):
    spec = random_spec(rng, "lstm", 3, 4)
    changes = {
        "input_size": np.int32(3),
        "hidden_size": np.uint8(4),
        "num_layers": np.array(1),
        "proj_size": np.int64(0),
    }
    layer = fastrnn.LSTM(replace(spec, **changes, bidirectional=np.False_, batch_first=np.True_))
    found = layer.input_size, layer.hidden_size, layer.num_layers, layer.proj_size
    assert found == (3, 4, 1, 0) and {type(size) for size in found} == {int}
    assert (layer.bidirectional, layer.batch_first) == (False, True)
    assert {type(layer.bidirectional), type(layer.batch_first)} == {bool}
    assert repr(layer) == repr(fastrnn.LSTM(spec))


@pytest.mark.parametrize("bad", ["1", True, [1.0], 1j, np.array("1")], ids=repr)
@pytest.mark.parametrize("name", ["cell_clip", "gate_clip", "proj_clip"])
def test_bounds_are_numbers(rng, name, bad):
    spec = random_spec(rng, "lstm", 3, 4, proj_size=2)
    spec = replace(spec, cells=[replace(spec.cells[0], **{name: bad})])
    with pytest.raises(TypeError, match=f"^{name}_l0 is .*, wanted a number"):
        spec.validate()


@pytest.mark.parametrize("kind", ["LSTM", "mgu", None, ["lstm"]])
def test_an_unknown_kind_is_refused(rng, kind):
    with pytest.raises(ValueError, match=r"^kind is .*, wanted one of lstm, gru, rnn"):
        replace(random_spec(rng, "rnn", 3, 4), kind=kind).validate()


@pytest.mark.parametrize("bad", [None, 3, {}, "cells"])
def test_cells_are_a_list_of_cells(rng, bad):
    spec = random_spec(rng, "rnn", 3, 4)
    with pytest.raises(TypeError, match=r"^cells is .*, wanted a list of CellSpec"):
        replace(spec, cells=bad).validate()
    with pytest.raises(TypeError, match=r"^cells\[0\] is .*, wanted a CellSpec"):
        replace(spec, cells=[bad]).validate()


@pytest.mark.parametrize(
    "bad", ["tanh", ("tanh",), [None], (Activation("elu", "1", 0),), (Activation("elu", 1, True),)]
)
def test_activations_are_activations(rng, bad):
    spec = random_spec(rng, "rnn", 3, 4)
    with pytest.raises(TypeError, match=r"^activations_l0"):
        replace(spec, cells=[replace(spec.cells[0], activations=bad)]).validate()


#: ONNX's names, as its operators LSTM, GRU and RNN have them, with the parameters that it fills in.
ONNX = {
    "Relu": ("relu", 0, 0),
    "Tanh": ("tanh", 0, 0),
    "Sigmoid": ("sigmoid", 0, 0),
    "Affine": ("affine", 1, 0),
    "LeakyRelu": ("leaky_relu", 0.01, 0),
    "ThresholdedRelu": ("thresholded_relu", 1, 0),
    "HardSigmoid": ("hard_sigmoid", 0.2, 0.5),
    "Elu": ("elu", 1, 0),
    "Softsign": ("softsign", 0, 0),
    "Softplus": ("softplus", 0, 0),
}


@pytest.mark.parametrize("name", ONNX)
def test_onnx_names(name):
    for spelling in (name, name.lower(), name.upper()):
        assert Activation.of(spelling) == Activation(*ONNX[name])
    assert Activation.of(name, 0.3, 0.7) == Activation(ONNX[name][0], 0.3, 0.7)


@pytest.mark.parametrize("name", ["ScaledTanh", "scaled_tanh"])
def test_scaled_tanh_has_no_defaults(name):
    """ONNX has no defaults for them."""
    assert Activation.of(name, 2, 3) == Activation("scaled_tanh", 2.0, 3.0)
    for given, missing in (({}, "alpha and beta"), ({"alpha": 2}, "beta"), ({"beta": 2}, "alpha")):
        with pytest.raises(ValueError, match=f"^{missing} of {name} (is|are) missing"):
            Activation.of(name, **given)


@pytest.mark.parametrize("name", ["swish", "hard sigmoid", "hard__sigmoid", "", "Hard_Sigmoid_"])
def test_unknown_activations(name):
    with pytest.raises(ValueError, match=f"^activation is '{name}', wanted one of affine, .*hard_sigmoid"):
        Activation.of(name)


@pytest.mark.parametrize("bad", [None, 3, b"tanh", ["tanh"]])
def test_names_of_activations_are_strings(bad):
    with pytest.raises(TypeError, match=r"^activation is .*, wanted a str"):
        Activation.of(bad)


@pytest.mark.parametrize("bad", ["0.3", True, [1], 1j], ids=repr)
@pytest.mark.parametrize("part", ["alpha", "beta"])
def test_parameters_of_activations_are_numbers(part, bad):
    with pytest.raises(TypeError, match=f"^{part} is .*, wanted a number"):
        Activation.of("hard_sigmoid", **{part: bad})


def test_layers_run_what_onnx_names(rng):
    spec = random_spec(rng, "rnn", 3, 4)
    x, layers = rng.standard_normal((2, 5, 3)).astype(np.float32), []
    for activation in (Activation.of("LeakyRelu"), Activation("leaky_relu", 0.01, 0.0)):
        layers.append(LAYERS["rnn"](replace(spec, cells=[replace(spec.cells[0], activations=(activation,))])))
    np.testing.assert_array_equal(layers[0](x)[0], layers[1](x)[0])
