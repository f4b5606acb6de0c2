"""fastrnn.keras compared with Keras 3 itself, in float32: every option, masks with holes, states, stacks."""

import itertools
import os

import keras_cases
import numpy as np
import pytest
from keras_cases import MASKS, MERGE_MODES, RUNS, VARIANTS

import fastrnn
from fastrnn.importers.keras import ACTIVATIONS
from fastrnn.keras import GRU, LSTM, Bidirectional, Masking, SimpleRNN

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
keras = pytest.importorskip("keras", minversion="3.0")

TOLERANCE = 1e-6
SIZES = (1, 7, 8, 9, 15, 16, 17, 33)
COUNTERPART = {"SimpleRNN": SimpleRNN, "LSTM": LSTM, "GRU": GRU}


def theirs(rng, name, units=keras_cases.UNITS, inputs=keras_cases.INPUTS, **options):
    """A layer of Keras with random weights."""
    kind, variant = VARIANTS[name]
    layer = getattr(keras.layers, kind)(units, **(variant | options))
    layer(np.zeros((6, 2, inputs), layer.dtype))
    layer.set_weights(keras_cases.random_weights(rng, name, units, inputs))
    if layer.stateful:
        layer.reset_state()
    return layer


def ours(layer):
    return COUNTERPART[type(layer).__name__].from_keras(layer)


def as_list(results):
    results = results if isinstance(results, (tuple, list)) else [results]
    return [part if isinstance(part, np.ndarray) else keras.ops.convert_to_numpy(part) for part in results]


def assert_same(found, wanted, tolerance=TOLERANCE):
    """Equal up to rounding, and exactly zero where Keras is."""
    found, wanted = as_list(found), as_list(wanted)
    for a, b in zip(found, wanted, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)
        assert not a[b == 0].any()


def each_call(rng, num_states, units=keras_cases.UNITS):
    """Arguments of calls: every batch of masks and none, with and without an initial state."""
    for mask, with_state in itertools.product([None, *MASKS.values()], [False, True]):
        x, states = keras_cases.random_inputs(rng, num_states, units)
        yield x, {"mask": mask, "initial_state": states if with_state else None}


@pytest.mark.parametrize("run", RUNS, ids=lambda run: "-".join(key for key, on in run.items() if on) or "plain")
@pytest.mark.parametrize("name", VARIANTS)
def test_every_option(rng, name, run):
    layer = theirs(rng, name, return_state=True, **run)
    for x, options in each_call(rng, keras_cases.num_states(name)):
        assert_same(ours(layer)(x, **options), layer(x, **options))


@pytest.mark.parametrize("name", ["rnn", "lstm", "gru", "gru-reset-before"])
def test_sizes_beside_vector_widths(rng, name):
    for units, inputs in zip(SIZES, reversed(SIZES), strict=True):
        layer = theirs(rng, name, units, inputs, return_sequences=True, return_state=True)
        x = rng.standard_normal((6, 7, inputs)).astype(np.float32)
        for mask in MASKS.values():
            assert_same(ours(layer)(x, mask=mask), layer(x, mask=mask), 3e-6)


@pytest.mark.parametrize("argument", ["activation", "recurrent_activation"])
@pytest.mark.parametrize("activation", [*ACTIVATIONS, None])
@pytest.mark.parametrize("name", ["rnn", "lstm", "gru", "gru-reset-before"])
def test_every_activation(rng, name, activation, argument):
    if name == "rnn" and argument == "recurrent_activation":
        argument = "activation"
    layer = theirs(rng, name, return_sequences=True, **{argument: activation})
    x, mask = keras_cases.random_inputs(rng, 0)[0][:, :3], MASKS["holes"][:, :3]  # unbounded gates: h would overflow
    assert_same(ours(layer)(x, mask=mask), layer(x, mask=mask), 5e-6)


@pytest.mark.parametrize("unroll", [False, True])
@pytest.mark.parametrize("implementation", [1, 2])
def test_arguments_without_meaning(rng, unroll, implementation):
    layer = theirs(rng, "gru", unroll=unroll, implementation=implementation, dropout=0.5, recurrent_dropout=0.2)
    x, _ = keras_cases.random_inputs(rng, 0)
    assert_same(ours(layer)(x, mask=MASKS["holes"]), layer(x, mask=MASKS["holes"]))
    with pytest.raises(ValueError, match="training is True"):
        ours(layer)(x, training=True)


@pytest.mark.parametrize("name", VARIANTS)
def test_float64(rng, name):
    layer = theirs(rng, name, dtype="float64", return_sequences=True, return_state=True)
    for x, options in each_call(rng, keras_cases.num_states(name)):
        x = rng.standard_normal(x.shape)
        assert_same(ours(layer)(x, **options), layer(x, **options), 1e-12)


@pytest.mark.parametrize("go_backwards", [False, True])
@pytest.mark.parametrize("name", ["rnn", "lstm", "gru"])
def test_stateful(rng, name, go_backwards):
    layer = theirs(rng, name, stateful=True, return_state=True, go_backwards=go_backwards)
    mine = ours(layer)
    for x, options in each_call(rng, keras_cases.num_states(name)):
        assert_same(mine(x, **options), layer(x, **options))
        assert_same(mine.states, [state.value for state in layer.states])
        if options["initial_state"] is not None and options["mask"] is not None:
            mine.reset_state()
            layer.reset_state()
    with pytest.raises(ValueError) as caught:
        layer(x[:2])
    assert "batch size" in str(caught.value)
    with pytest.raises(ValueError, match="x has 2 rows"):
        mine(x[:2])


@pytest.mark.parametrize("sequences", [False, True])
@pytest.mark.parametrize("merge_mode", MERGE_MODES)
@pytest.mark.parametrize("name", ["rnn", "lstm", "gru", "gru-reset-before"])
def test_bidirectional(rng, name, merge_mode, sequences):
    forward, backward = (
        theirs(rng, name, return_sequences=sequences, return_state=True, go_backwards=back) for back in (False, True)
    )
    layer = keras.layers.Bidirectional(forward, merge_mode, backward_layer=backward)
    layer(np.zeros((6, 2, 3), np.float32))
    layer.forward_layer.set_weights(forward.get_weights())
    mine = Bidirectional.from_keras(layer)
    for x, options in each_call(rng, 2 * keras_cases.num_states(name)):
        assert_same(mine(x, **options), layer(x, **options))


@pytest.mark.parametrize("sequences", [False, True])
@pytest.mark.parametrize("merge_mode", ["concat", None])
def test_bidirectional_of_two_kinds(rng, merge_mode, sequences):
    """Keras expects equal sizes of both states, so there is no initial state."""
    options = {"return_sequences": sequences, "return_state": True}
    backward = theirs(rng, "gru", 9, go_backwards=True, **options)
    layer = keras.layers.Bidirectional(theirs(rng, "lstm", **options), merge_mode, backward_layer=backward)
    layer(np.zeros((6, 2, 3), np.float32))
    mine = Bidirectional.from_keras(layer)
    assert not np.array_equal(mine.get_weights()[0], mine.get_weights()[3])
    for mask in [None, *MASKS.values()]:
        x, _ = keras_cases.random_inputs(rng, 0)
        assert_same(mine(x, mask=mask), layer(x, mask=mask))


@pytest.mark.parametrize("name", ["rnn", "lstm", "gru"])
def test_stateful_bidirectional(rng, name):
    layer = keras.layers.Bidirectional(theirs(rng, name, stateful=True, return_sequences=True))
    layer(np.zeros((6, 2, 3), np.float32))
    layer.reset_state()
    mine = Bidirectional.from_keras(layer)
    for mask in [None, *MASKS.values()]:
        x, _ = keras_cases.random_inputs(rng, 0)
        assert_same(mine(x, mask=mask), layer(x, mask=mask))


@pytest.mark.parametrize("kind", ["SimpleRNN", "LSTM", "GRU"])
def test_every_layer_of_a_stack_sees_the_mask(rng, kind):
    """Keras passes the mask of Masking down the stack; here it is passed as an argument."""
    make = getattr(keras.layers, kind)
    model = keras.Sequential(
        [
            keras.layers.Masking(0.37),
            make(8, return_sequences=True),
            keras.layers.Bidirectional(make(7, return_sequences=True)),
            make(9, return_sequences=True, go_backwards=True, zero_output_for_mask=True),
        ]
    )
    x, _ = keras_cases.random_inputs(rng, 0)
    x[~MASKS["holes"]] = 0.37
    wanted = model(x)
    masking = Masking(0.37)
    mask, y = masking.compute_mask(x), masking(x)
    np.testing.assert_array_equal(mask, MASKS["holes"])
    for layer in model.layers[1:]:
        y = (Bidirectional if hasattr(layer, "merge_mode") else COUNTERPART[kind]).from_keras(layer)(y, mask=mask)
    assert_same(y, wanted)


@pytest.mark.parametrize("value", [0.0, 0.37, 1, float("nan")])
def test_masking(rng, value):
    x = rng.choice([0, 0.37, 0.3700001, 1, np.nan], (6, 7, 2)).astype(np.float32)
    layer, mine = keras.layers.Masking(value), Masking(value)
    np.testing.assert_array_equal(mine.compute_mask(x), layer.compute_mask(x))
    np.testing.assert_array_equal(mine(x), layer(x))


def test_from_keras_takes_built_layers_of_its_kind():
    with pytest.raises(ValueError, match="has no weights yet"):
        LSTM.from_keras(keras.layers.LSTM(3))
    layer = keras.layers.LSTM(3)
    layer(np.zeros((1, 2, 3)))
    with pytest.raises(TypeError, match="layer is LSTM, wanted a Keras GRU"):
        GRU.from_keras(layer)
    with pytest.raises(TypeError, match="layer is Dense"):
        GRU.from_keras(keras.layers.Dense(3))
    layer = keras.layers.GRU(3, activation="gelu")
    layer(np.zeros((1, 2, 3)))
    with pytest.raises(ValueError, match="activation is 'gelu'"):
        GRU.from_keras(layer)


def test_keras_2_hard_sigmoid(rng):
    """The Keras 2 line that TensorFlow still carries: the slope of its hard_sigmoid is 0.2."""
    recurrent = pytest.importorskip("tensorflow.python.keras.layers.recurrent")
    layer = recurrent.LSTM(5, recurrent_activation="hard_sigmoid", return_sequences=True)
    x, _ = keras_cases.random_inputs(rng, 0)
    layer(x)
    layer.set_weights(keras_cases.random_weights(rng, "lstm"))
    assert_same(fastrnn.keras.LSTM.from_keras(layer)(x, mask=MASKS["holes"]), layer(x, mask=MASKS["holes"]))


@pytest.mark.parametrize("dtype", ["float32", "float64", keras.DTypePolicy("float64")], ids=str)
@pytest.mark.parametrize("name", ["rnn", "lstm", "gru", "gru-reset-before", "lstm-activations"])
def test_a_configuration_builds_the_counterpart(rng, name, dtype):
    """`layer.get_config()` holds every argument, including those of training and the serialised dtype policy."""
    training = {"dropout": 0.5, "seed": 3, "kernel_regularizer": "l2", "bias_constraint": "non_neg"}
    layer = theirs(rng, name, dtype=dtype, return_sequences=True, return_state=True, **training)
    mine = COUNTERPART[type(layer).__name__](**layer.get_config(), weights=layer.get_weights())
    x, states = keras_cases.random_inputs(rng, keras_cases.num_states(name))
    assert_same(mine(x, states), layer(x, initial_state=states))


def test_a_mixed_policy_is_refused():
    with pytest.raises(TypeError, match=r"dtype is .*mixed_float16"):
        LSTM(**keras.layers.LSTM(3, dtype="mixed_float16").get_config())


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_activations_of_keras_as_functions(rng, activation):
    """The functions themselves, given here and in a live layer's configuration."""
    function = getattr(keras.activations, activation)
    layer = theirs(rng, "gru", activation=function, return_sequences=True)
    x, _ = keras_cases.random_inputs(rng, 0)
    weights = layer.get_weights()
    named = GRU(keras_cases.UNITS, activation, return_sequences=True, weights=weights)(x)
    np.testing.assert_array_equal(GRU(keras_cases.UNITS, function, return_sequences=True, weights=weights)(x), named)
    np.testing.assert_array_equal(ours(layer)(x), named)
    assert_same(named, layer(x), 5e-6)


def test_a_function_of_the_callers_in_a_live_layer(rng):
    layer = theirs(rng, "lstm", activation=lambda x: keras.ops.tanh(x) * 1, return_sequences=True)
    x, _ = keras_cases.random_inputs(rng, 0)
    assert_same(ours(layer)(x), layer(x))


@pytest.mark.parametrize("outer", [None, "float32", "float64"])
@pytest.mark.parametrize("inner", ["float32", "float64"])
@pytest.mark.parametrize("merge_mode", MERGE_MODES)
def test_dtype_of_bidirectional(rng, merge_mode, inner, outer):
    forward, backward = (
        theirs(rng, "lstm", dtype=inner, go_backwards=back, return_state=True) for back in (False, True)
    )
    layer = keras.layers.Bidirectional(forward, merge_mode, backward_layer=backward, dtype=outer)
    layer(np.zeros((6, 2, 3), np.float32))
    layer.forward_layer.set_weights(forward.get_weights())
    x, states = rng.standard_normal((6, 7, 3)), list(rng.standard_normal((4, 6, keras_cases.UNITS)))
    tolerance = 1e-12 if inner == outer == "float64" else TOLERANCE
    assert_same(Bidirectional.from_keras(layer)(x, states), layer(x, initial_state=states), tolerance)
