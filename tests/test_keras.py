"""fastrnn.keras without Keras: stored answers of Keras, and arguments that are accepted or refused."""

import copy
import pickle
import subprocess
import sys
import zlib
from pathlib import Path

import keras_cases
import numpy as np
import pytest
from bits import assert_same_bits
from hypothesis import given
from hypothesis import strategies as st
from keras_cases import GOLDEN, MASKS, UNITS, VARIANTS, ours
from test_properties import REFUSALS, assert_names, bounded, wild

import fastrnn
from fastrnn.importers import keras as importer
from fastrnn.importers.keras import spec_from_weights
from fastrnn.keras import GRU, LSTM, Bidirectional, Masking, SimpleRNN
from fastrnn.spec import Activation

STORED = Path(__file__).parent / "golden" / "keras.npz"
MASK = MASKS["holes"]
KINDS = {"SimpleRNN": "rnn", "LSTM": "lstm", "GRU": "gru"}

every_kind = pytest.mark.parametrize("name", ["rnn", "lstm", "gru"])


def make(rng, name, **options):
    """A layer with random weights."""
    return ours(name, weights=keras_cases.random_weights(rng, name), **options)


def inputs(rng, name, layers=1):
    return keras_cases.random_inputs(rng, layers * keras_cases.num_states(name))


def take(values, shapes):
    """Cut flat values into arrays of these shapes."""
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes])
    parts = np.split(values, ends)
    assert parts.pop().size == 0
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]


@pytest.fixture(scope="module")
def stored():
    with np.load(STORED) as arrays:
        return dict(arrays)


def test_every_case_is_stored(stored):
    assert set(stored) == set(GOLDEN)


@pytest.mark.parametrize("case", GOLDEN)
def test_equals_stored_answers_of_keras(stored, case):
    """`oracle/make_keras_golden.py` made them."""
    names, mode, mask, run = GOLDEN[case]
    rng = np.random.default_rng(zlib.crc32(case.encode()))
    layer = ours(names[0], return_state=True, **run)
    if len(names) == 2:
        layer = Bidirectional(layer, merge_mode=mode)
    x, states = keras_cases.random_inputs(rng, sum(map(keras_cases.num_states, names)))
    weights = [array for name in names for array in keras_cases.random_weights(rng, name)]
    layer.set_weights(weights)
    found = layer(x, states, MASKS[mask])
    given = [x, *weights, *states]
    *read, wanted = np.split(stored[case], np.cumsum([part.size for part in given]))
    for part, value in zip(given, read, strict=True):
        np.testing.assert_array_equal(part.ravel(), value, err_msg="the file was made from other inputs")
    for a, b in zip(found, take(wanted, [part.shape for part in found]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)


def test_import_is_lazy():
    code = "import fastrnn, sys; assert 'fastrnn.keras' not in sys.modules; fastrnn.keras.LSTM(3); fastrnn.keras.GRU"
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="module 'fastrnn' has no attribute 'kerass'"):
        fastrnn.kerass  # noqa: B018


@every_kind
def test_same_bits_as_the_engine(rng, name):
    """Outputs, states and carried steps are those of the engine's own layer."""
    weights = keras_cases.random_weights(rng, name)
    layer = make(rng, name, return_sequences=True, return_state=True)
    layer.set_weights(weights)
    kind = KINDS[VARIANTS[name][0]]
    defaults = {
        key: importer.ACTIVATIONS[value] for key, value in (("activation", "tanh"), ("recurrent_activation", "sigmoid"))
    }
    spec = spec_from_weights(kind, weights, UNITS, **defaults)
    engine = {"rnn": fastrnn.RNN, "lstm": fastrnn.LSTM, "gru": fastrnn.GRU}[kind](spec)
    x, states = inputs(rng, name)
    state = tuple(part[None] for part in states) if kind == "lstm" else states[0][None]
    y, last = engine(x, state, mask=MASK, past_end="carry")
    assert_same_bits(layer(x, states, MASK), (y, *(part[0] for part in (last if kind == "lstm" else [last]))))


@pytest.mark.parametrize("name", VARIANTS)
def test_rule_12_a_masked_step_leaves_everything_as_it_was(rng, name):
    """Its output is the one before, and garbage in it changes nothing."""
    layer = make(rng, name, return_sequences=True, return_state=True)
    x, states = inputs(rng, name)
    wanted = layer(x, states, MASK)
    x[~MASK] = np.nan
    y, *final = layer(x, states, MASK)
    assert_same_bits((y, *final), wanted)
    for row, counted in enumerate(MASK):
        for t in np.flatnonzero(~counted):
            assert_same_bits(y[row, t], y[row, t - 1] if t else np.zeros(UNITS, np.float32))
        if not counted.any():
            assert_same_bits([part[row] for part in final], [part[row] for part in states])


@every_kind
def test_rule_13_zero_output_for_mask(rng, name):
    """In sequences, and as the last output where the last step is masked; states are the same."""
    weights = keras_cases.random_weights(rng, name)
    x, states = inputs(rng, name)
    for sequences in (True, False):
        carry, zero = (
            ours(name, weights=weights, return_sequences=sequences, return_state=True, zero_output_for_mask=flag)
            for flag in (False, True)
        )
        y, *final = carry(x, states, MASK)
        found, *found_final = zero(x, states, MASK)
        assert_same_bits(found_final, final)
        counted = MASK[..., None] if sequences else MASK[:, -1:]
        assert_same_bits(found, np.where(counted, y, np.float32(0)))


@every_kind
def test_go_backwards_is_the_reversed_sequence_with_the_reversed_mask(rng, name):
    weights = keras_cases.random_weights(rng, name)
    x, states = inputs(rng, name)
    for sequences in (True, False):
        options = {"weights": weights, "return_sequences": sequences, "return_state": True}
        found = ours(name, go_backwards=True, **options)(x, states, MASK)
        assert_same_bits(found, ours(name, **options)(x[:, ::-1].copy(), states, MASK[:, ::-1].copy()))


@every_kind
def test_outputs_follow_the_flags(rng, name):
    weights = keras_cases.random_weights(rng, name)
    x, states = inputs(rng, name)
    y, *final = ours(name, weights=weights, return_sequences=True, return_state=True)(x, states)
    assert_same_bits(ours(name, weights=weights)(x, states), y[:, -1])
    assert_same_bits(final[0], y[:, -1])
    assert_same_bits(ours(name, weights=weights, return_sequences=True)(x, states), y)
    assert_same_bits(ours(name, weights=weights, return_state=True)(x, states), (y[:, -1], *final))


@every_kind
def test_no_steps_and_no_rows(rng, name):
    layer = make(rng, name, return_state=True)
    x, states = inputs(rng, name)
    output, *final = layer(x[:, :0], states)
    assert output.shape == (6, UNITS) and not output.any()
    assert_same_bits(final, states)
    output, *final = layer(x[:0])
    assert output.shape == (0, UNITS) and [part.shape for part in final] == [(0, UNITS)] * len(states)


@every_kind
def test_stateful_calls_continue(rng, name):
    """Chunks with a mask equal the whole; reset_state starts again; the caller gets copies of the state."""
    weights = keras_cases.random_weights(rng, name)
    stateful = ours(name, weights=weights, stateful=True, return_state=True)
    whole = ours(name, weights=weights, return_state=True)
    x, states = inputs(rng, name)
    stateful.reset_state()
    assert stateful.states is None
    for _ in range(2):
        stateful(x[:, :4], mask=MASK[:, :4])
        _, *final = stateful(x[:, 4:], mask=MASK[:, 4:])
        assert_same_bits(final, whole(x, mask=MASK)[1:])
        assert_same_bits(stateful.states, final)
        final[0][:] = np.nan
        assert not np.isnan(stateful.states[0]).any()
        stateful.reset_states()
    assert_same_bits(stateful(x, states, MASK), whole(x, states, MASK))
    with pytest.raises(ValueError, match="x has 2 rows, but the stateful layer's state has 6"):
        stateful(x[:2])


@every_kind
@pytest.mark.parametrize("merge_mode", keras_cases.MERGE_MODES)
@pytest.mark.parametrize("sequences", [True, False])
def test_bidirectional_merges_two_layers(rng, name, merge_mode, sequences):
    """Sequences of both directions are in the order of x, with zeros in masked steps."""
    weights = [keras_cases.random_weights(rng, name) for _ in range(2)]
    both = Bidirectional(
        ours(name, return_sequences=sequences, return_state=True), merge_mode, weights=weights[0] + weights[1]
    )
    options = {"return_sequences": sequences, "return_state": True, "zero_output_for_mask": sequences}
    x, states = inputs(rng, name, 2)
    half = len(states) // 2
    y, *final = ours(name, weights=weights[0], **options)(x, states[:half], MASK)
    back, *back_final = ours(name, weights=weights[1], go_backwards=True, **options)(x, states[half:], MASK)
    back = back[:, ::-1] if sequences else back
    merged = {
        "concat": [np.concatenate([y, back], -1)],
        "sum": [y + back],
        "ave": [(y + back) / 2],
        "mul": [y * back],
        None: [y, back],
    }[merge_mode]
    assert_same_bits(both(x, states, MASK), (*merged, *final, *back_final))
    if sequences:
        assert not any(part[~MASK].any() for part in merged)


@pytest.mark.parametrize("name", ["lstm", "gru"])
@pytest.mark.parametrize("sequences", [True, False])
def test_bidirectional_layers_may_differ(rng, name, sequences):
    """In kind or in size."""
    options = {"return_sequences": sequences, "return_state": True, "zero_output_for_mask": sequences}
    forward = make(rng, name, **options)
    weights = keras_cases.random_weights(rng, "gru", 4)
    backward = ours("gru", 4, weights=weights, go_backwards=True, **options)
    x, states = inputs(rng, name)
    states.append(states[0][:, :4])
    y, *first = forward(x, states[:-1], MASK)
    back, *second = backward(x, states[-1:], MASK)
    back = back[:, ::-1] if sequences else back
    found = Bidirectional(forward, None, backward_layer=backward)(x, states, MASK)
    assert_same_bits(found, (y, back, *first, *second))
    found = Bidirectional(forward, backward_layer=backward)(x, states, MASK)
    assert_same_bits(found, (np.concatenate([y, back], -1), *first, *second))
    with pytest.raises(ValueError, match="merge_mode is 'sum', but the layers have 5 and 4 units"):
        Bidirectional(forward, "sum", backward_layer=backward)


def test_bidirectional_follows_its_layers(rng):
    """New weights or a new state of one of the two are used from the next call on."""
    weights = [keras_cases.random_weights(rng, "gru") for _ in range(3)]
    x, _ = inputs(rng, "gru")
    both = Bidirectional(ours("gru", stateful=True), weights=weights[0] + weights[1])
    both(x)
    both.reset_state()
    both.backward_layer.set_weights(weights[2])
    wanted = Bidirectional(ours("gru", stateful=True), weights=weights[0] + weights[2])
    assert_same_bits(both(x), wanted(x))
    fresh = Bidirectional(ours("gru", stateful=True), weights=weights[0] + weights[2])
    fresh.forward_layer(x)
    assert_same_bits(fresh(x)[:, :UNITS], both(x)[:, :UNITS])
    assert_same_bits(fresh.forward_layer.states, both.forward_layer.states)


def test_bidirectional_copies_its_layers(rng):
    layer = make(rng, "gru", return_sequences=True)
    both = Bidirectional(layer)
    assert not layer.zero_output_for_mask and both.forward_layer.zero_output_for_mask
    assert not layer.go_backwards and both.backward_layer.go_backwards
    assert both.backward_layer.get_weights() == []
    with pytest.raises(ValueError, match="no weights"):
        both(np.zeros((1, 2, 3)))


@every_kind
@pytest.mark.parametrize("units", [UNITS, 4])
def test_stateful_bidirectional(rng, name, units):
    """Each direction continues from its own state; a call that fails changes neither."""
    parts = [
        make(rng, name, stateful=True),
        ours(name, units, weights=keras_cases.random_weights(rng, name, units), stateful=True, go_backwards=True),
    ]
    both = Bidirectional(parts[0], backward_layer=parts[1])
    x, _ = inputs(rng, name)
    assert both.states is None
    for mask in (None, MASK):
        found = both(x, mask=mask)
        assert_same_bits(found, np.concatenate([part(x, mask=mask) for part in parts], -1))
        assert_same_bits(both.states, [state for part in parts for state in part.states])
    bad = [*both.states[:-1], np.zeros((6, 1))]
    with pytest.raises(ValueError, match="initial_state"):
        both(x, bad)
    assert_same_bits(both.states, [state for part in parts for state in part.states])
    both.reset_state()
    assert not any(state.any() for state in both.states)
    assert_same_bits(both(x), Bidirectional(parts[0], backward_layer=parts[1])(x))


@pytest.mark.parametrize(
    ("value", "steps", "masked"),
    [
        (0.0, [[0, 0], [0, 1], [-0.0, 0]], [True, False, True]),
        (0.37, [[0.37, 0.37], [0.37, 0.38], [1, 1]], [True, False, False]),
        (np.float64(0.37), [[0.37, 0.37], [0.37, 0.38], [1, 1]], [True, False, False]),
        (np.nan, [[np.nan, np.nan], [0, 0], [np.nan, 0]], [False, False, False]),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rule_32_masking_by_value(value, steps, masked, dtype):
    """Compared in the input's own type; a NaN masks nothing."""
    x = np.array([steps], dtype)
    masking = Masking(value)
    np.testing.assert_array_equal(masking.compute_mask(x), [np.logical_not(masked)])
    y = masking(x)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, np.where(np.array(masked)[:, None], 0, x[0])[None])


@pytest.mark.parametrize("value", [1e300, -1e300])
def test_rule_32_a_value_beyond_float32_is_infinite(value):
    x = np.array([[[1], [np.inf], [-np.inf]]], np.float32)
    assert Masking(value).compute_mask(x).tolist() == [[True, value < 0, value > 0]]


@pytest.mark.parametrize("inputs", [[[["a"]]], [[[None]]], [[[1j]]]])
def test_masking_is_of_numbers(inputs):
    for call in (Masking(0.0), Masking(0.0).compute_mask):
        with pytest.raises(TypeError, match=r"inputs is of type .*, wanted numbers"):
            call(inputs)


def test_rule_32_integers_never_equal_a_fraction():
    assert Masking(0.37).compute_mask(np.zeros((1, 2, 3), int)).all()
    assert not Masking(0).compute_mask(np.zeros((1, 2, 3), int)).any()


@every_kind
def test_rule_24_inputs_are_cast_to_the_layers_dtype(rng, name):
    """Inputs are cast as in Keras; the engine's own layers refuse them."""
    x, states = inputs(rng, name)
    for dtype in ("float32", "float64"):
        layer = make(rng, name, dtype=dtype)
        y = layer(x.astype(dtype), states)
        assert y.dtype == dtype
        for other in (np.float16, np.float64, ">f4"):
            assert_same_bits(layer(x.astype(other), [part.astype(other) for part in states]), y)
    assert_same_bits(layer(x.astype(int)), layer(x.astype(int).astype(dtype)))
    with pytest.raises(TypeError, match="x is of type complex64, wanted numbers"):
        layer(x.astype(np.complex64))


@every_kind
def test_masks_of_numbers_count_where_they_are_not_zero(rng, name):
    layer = make(rng, name)
    x, states = inputs(rng, name)
    wanted = layer(x, states, MASK)
    for mask in (MASK.astype(int), MASK * 0.5, MASK.tolist()):
        assert_same_bits(layer(x, states, mask), wanted)


@every_kind
def test_weights_are_copied(rng, name):
    weights = keras_cases.random_weights(rng, name)
    layer = ours(name, weights=weights)
    x, _ = inputs(rng, name)
    wanted = layer(x)
    for array in [*weights, *layer.get_weights()]:
        array[:] = np.nan
    assert_same_bits(layer(x), wanted)
    assert len(layer.get_weights()) == 3 and not np.isnan(layer.get_weights()[0]).any()
    other = keras_cases.random_weights(rng, name)
    layer.set_weights(other)
    assert_same_bits(layer(x), ours(name, weights=other)(x))
    assert not np.array_equal(layer(x), wanted)


@every_kind
@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_a_copy_runs_like_its_original_whenever_it_was_made(rng, name, duplicate):
    x, _ = inputs(rng, name)
    weights = keras_cases.random_weights(rng, name)
    one = ours(name, weights=weights, stateful=True)
    for layer in (one, Bidirectional(one, weights=weights + weights)):
        before = duplicate(layer)
        first = layer(x, mask=MASK)
        after = duplicate(layer)
        assert_same_bits(before(x, mask=MASK), first)
        assert_same_bits(after(x), layer(x))  # from the state that the original had then
        before.reset_state()
        assert_same_bits(before(x, mask=MASK), first)


def test_arguments_without_meaning_are_taken_and_others_refused():
    LSTM(3, unroll=True, implementation=1, use_cudnn=True, kernel_initializer="zeros", bias_constraint=None, name="a")
    Bidirectional(LSTM(3), name="both", trainable=False)
    for maker in (lambda: LSTM(3, units_=4), lambda: Bidirectional(LSTM(3), units_=4)):
        with pytest.raises(TypeError, match="has no argument units_"):
            maker()
    for maker in (lambda: LSTM(3, reset_after=True), lambda: SimpleRNN(3, recurrent_activation="tanh")):
        with pytest.raises(TypeError, match="has no argument"):
            maker()


def test_dropout_is_the_identity_until_it_is_asked_to_drop(rng):
    weights = keras_cases.random_weights(rng, "lstm")
    plain, dropping = ours("lstm", weights=weights), ours("lstm", weights=weights, dropout=0.5)
    x, _ = inputs(rng, "lstm")
    assert_same_bits(dropping(x), plain(x))
    assert_same_bits(plain(x, training=True), plain(x))
    for layer in (dropping, ours("lstm", weights=weights, recurrent_dropout=0.5)):
        with pytest.raises(ValueError, match="training is True and the layer has dropout"):
            layer(x, training=True)


#: Keras 3's activations, from its documentation.
EQUATIONS = {
    "elu": lambda x: np.where(x > 0, x, np.exp(x) - 1),
    "hard_sigmoid": lambda x: np.clip(x / 6 + 0.5, 0, 1),
    "leaky_relu": lambda x: np.where(x > 0, x, 0.2 * x),
    "linear": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "softplus": lambda x: np.log(np.exp(x) + 1),
    "softsign": lambda x: x / (1 + np.abs(x)),
    "tanh": np.tanh,
}


def test_activations_are_those_of_keras():
    assert set(importer.ACTIVATIONS) == set(EQUATIONS)
    x = np.linspace(-5, 5, 101)
    for name, equation in EQUATIONS.items():
        layer = SimpleRNN(1, activation=name, weights=[np.ones((1, 1)), np.zeros((1, 1)), np.zeros(1)])
        np.testing.assert_allclose(layer(x.reshape(-1, 1, 1)).ravel(), equation(x), rtol=1e-5, atol=1e-6, err_msg=name)


def test_keras_2_hard_sigmoid(rng):
    """Its slope is 0.2, Keras 3's is 1/6."""
    x, _ = inputs(rng, "lstm")
    weights = keras_cases.random_weights(rng, "lstm")
    old = Activation.of("hard_sigmoid", 0.2, 0.5)
    found = [ours("lstm", weights=weights, recurrent_activation=which)(x) for which in ("hard_sigmoid", old)]
    assert np.abs(found[0] - found[1]).max() > 1e-3


@pytest.mark.parametrize("argument", ["activation", "recurrent_activation"])
@pytest.mark.parametrize("value", ["gelu", "Tanh", 3, {"class_name": "PReLU"}])
def test_activations_that_the_engine_lacks(argument, value):
    with pytest.raises(ValueError, match=rf"^{argument} is .*elu, hard_sigmoid, leaky_relu, linear, relu, sigmoid"):
        GRU(3, **{argument: value})


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda w: w[:2], ValueError, "weights has 2 entries, wanted 3: kernel, recurrent_kernel, bias"),
        (lambda w: np.stack([w[1]]), TypeError, "weights is ndarray, wanted a list"),
        (lambda w: [w[0].T, w[1], w[2]], ValueError, r"kernel has shape \(15, 3\), wanted \(15, 15\)"),
        (
            lambda w: [w[0], w[1][:4], w[2][0]],
            ValueError,
            r"recurrent_kernel has shape \(4, 15\), wanted \(5, 15\); bias has shape \(15,\), wanted \(2, 15\)",
        ),
        (lambda w: [w[0].astype(str), w[1], w[2]], TypeError, "kernel is of type <U32, wanted numbers"),
        (lambda w: [w[0], w[1], None], TypeError, "bias is of type object, wanted numbers"),
    ],
)
def test_weights_that_do_not_fit(rng, change, error, message):
    layer = ours("gru")
    with pytest.raises(error, match=message):
        layer.set_weights(change(keras_cases.random_weights(rng, "gru")))
    with pytest.raises(ValueError, match="the layer has no weights"):
        layer(np.zeros((1, 2, 3)))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda layer, x: layer(x[0]), ValueError, r"x has shape \(7, 3\), wanted \(B, T, 3\)"),
        (lambda layer, x: layer(x[..., :2]), ValueError, "x has shape .*2 wide, wanted 3"),
        (lambda layer, x: layer(x, mask=MASK[:, :4]), ValueError, r"mask has shape \(6, 4\), wanted \(6, 7\)"),
        (lambda layer, x: layer(x, mask=MASK[0]), ValueError, r"mask has shape \(7,\)"),
        (lambda layer, x: layer(x, mask="yes"), TypeError, "mask is of type <U3, wanted booleans"),
        (lambda layer, x: layer(x, [x[:, 0]] * 3), ValueError, "initial_state has 3 entries, wanted 2"),
        (lambda layer, x: layer(x, x[:, 0]), ValueError, "initial_state has 1 entries, wanted 2"),
        (lambda layer, x: layer(x, [x[:, 0]] * 2), ValueError,
         r"initial_state\[0\] has shape \(6, 3\), wanted \(6, 5\)"),
        (lambda layer, x: layer(x, ["a", "b"]), TypeError, r"initial_state\[0\] is of type <U1, wanted numbers"),
    ],
)  # fmt: skip
def test_calls_that_do_not_fit(rng, call, error, message):
    for go_backwards in (False, True):
        layer = make(rng, "lstm", go_backwards=go_backwards)
        with pytest.raises(error, match=message):
            call(layer, inputs(rng, "lstm")[0])


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: LSTM(0), ValueError, "units is 0, wanted an integer of at least 1"),
        (lambda: LSTM(2.5), TypeError, "units is 2.5, wanted an integer"),
        (lambda: LSTM(3, dtype="mixed_float16"), TypeError, "dtype is 'mixed_float16', wanted float32 or float64"),
        (lambda: Masking("0"), TypeError, "mask_value is '0', wanted a number"),
        (lambda: Bidirectional(fastrnn.LSTM), TypeError, "layer is type, wanted a SimpleRNN, LSTM or GRU"),
        (lambda: Bidirectional(LSTM(3), backward_layer=3), TypeError, "backward_layer is int, wanted a SimpleRNN"),
        (lambda: Bidirectional(LSTM(3), "max"), ValueError, "merge_mode is 'max', wanted None or one of concat, sum"),
        (lambda: Bidirectional(LSTM(3), 5), ValueError, "merge_mode is 5"),
        (lambda: Bidirectional(LSTM(3, go_backwards=True)), ValueError,
         "go_backwards of layer and backward_layer is True and True"),
        (lambda: Bidirectional(LSTM(3), backward_layer=LSTM(3)), ValueError, "is False and False, wanted False and"),
        (lambda: Bidirectional(LSTM(3), backward_layer=LSTM(3, go_backwards=True, stateful=True)), ValueError,
         "backward_layer.stateful is True, wanted False"),
        (lambda: Bidirectional(LSTM(3), weights=[1, 2, 3]), ValueError, "weights has 3 entries, wanted 3 and 3"),
        (lambda: Bidirectional(LSTM(3), weights=5), TypeError, "weights is int, wanted a list"),
        (lambda: LSTM.from_keras(object()), TypeError, "layer is object, wanted a Keras SimpleRNN, LSTM or GRU"),
        (lambda: Bidirectional.from_keras(object()), TypeError, "layer is object, wanted a Keras Bidirectional"),
    ],
)  # fmt: skip
def test_construction_that_does_not_fit(build, error, message):
    with pytest.raises(error, match=message):
        build()


def test_bidirectional_states_that_do_not_fit(rng):
    weights = keras_cases.random_weights(rng, "lstm")
    both = Bidirectional(ours("lstm"), weights=weights + weights)
    x, states = inputs(rng, "lstm", 2)
    for bad, found in ((states[:3], "3 entries"), (states[0], "no list")):
        with pytest.raises(ValueError, match=f"initial_state has {found}, wanted 2 of layer and 2 of backward_layer"):
            both(x, bad)


def test_rule_18_order_of_the_gates(rng):
    """Keras's gates, each with weights of its own, against the importer's table: LSTM i f c o, GRU z r h."""
    for kind, ours_in_theirs in (("lstm", "ifco"), ("gru", "rzh")):
        theirs = {"lstm": "ifco", "gru": "zrh"}[kind]
        columns = np.repeat([ord(gate) for gate in theirs], 2).astype(np.float32)
        bias = np.stack([columns, -columns]) if kind == "gru" else columns
        defaults = {key: importer.ACTIVATIONS["tanh"] for key in ("activation", "recurrent_activation")}
        spec = spec_from_weights(kind, [columns[None], np.stack([columns] * 2), bias], 2, **defaults)
        rows = np.repeat([ord(gate) for gate in ours_in_theirs], 2)
        np.testing.assert_array_equal(spec.cells[0].weight_ih[:, 0], rows)
        np.testing.assert_array_equal(spec.cells[0].weight_hh, np.stack([rows] * 2, 1))
        np.testing.assert_array_equal(spec.cells[0].bias_ih, rows)
        if kind == "gru":
            np.testing.assert_array_equal(spec.cells[0].bias_hh, -rows)


@bounded
@given(wild, wild, wild, st.sampled_from(["rnn", "lstm", "gru"]), st.booleans(), st.booleans())
def test_any_arguments_give_an_answer_or_an_error(x, mask, state, name, stateful, both):
    """Either an answer, or an error that names the argument and leaves the layer unchanged."""
    rng = np.random.default_rng(0)
    weights = keras_cases.random_weights(rng, name)
    layer = ours(name, stateful=stateful, weights=weights)
    if both:
        layer = Bidirectional(layer, weights=weights + weights)
    good = np.ones((2, 3, 3), np.float32)
    for arguments, named in (
        ({"x": x}, {"x"}),
        ({"x": good, "mask": mask}, {"mask"}),
        ({"x": good, "initial_state": state}, {"initial_state"}),
        ({"x": x, "mask": mask, "initial_state": state}, {"x", "mask", "initial_state"}),
    ):
        layer.reset_state()
        before = layer(good)
        layer.reset_state()
        try:
            layer(**arguments)
        except REFUSALS as error:
            assert_names(error, named)
            assert_same_bits(layer(good), before)


@bounded
@given(wild, wild)
def test_construction_survives_anything(value, weights):
    for call, named in (
        (lambda: LSTM(value), {"units"}),
        (lambda: LSTM(3, activation=value), {"activation"}),
        (lambda: GRU(3, recurrent_activation=value), {"recurrent_activation"}),
        (lambda: LSTM(3, dtype=value), {"dtype"}),
        (lambda: LSTM(3, dropout=value), {"dropout"}),
        (lambda: LSTM(3, weights=weights), {"weights", *importer.WEIGHTS}),
        (lambda: LSTM(3, weights=[weights, value, value]), {"weights", *importer.WEIGHTS}),
        (lambda: Bidirectional(value), {"layer"}),
        (lambda: Bidirectional(LSTM(3), value), {"merge_mode"}),
        (lambda: Bidirectional(LSTM(3), weights=weights), {"weights"}),
        (lambda: Masking(value), {"mask_value"}),
        (lambda: Masking(0.5).compute_mask(value), {"inputs"}),
        (lambda: Masking(0.5)(value), {"inputs"}),
    ):
        try:
            call()
        except REFUSALS as error:
            assert_names(error, named)


# ---- Configurations and functions ------------------------------------------------------------------------------------


def policy(name, class_name="DTypePolicy"):
    """A data type as `get_config` of Keras 3 writes it."""
    return {"module": "keras", "class_name": class_name, "config": {"name": name}, "registered_name": None}


def config_of_keras_3(units=keras_cases.UNITS, **options):
    """What `keras.layers.LSTM(units).get_config()` gives in Keras 3.15."""
    initializer = {"module": "keras.initializers", "class_name": "Zeros", "config": {}, "registered_name": None}
    config = {"name": "lstm", "trainable": True, "dtype": policy("float32"), "return_sequences": False}
    config |= dict.fromkeys(("return_state", "go_backwards", "stateful", "unroll", "zero_output_for_mask"), False)
    config |= {"units": units, "activation": "tanh", "recurrent_activation": "sigmoid", "use_bias": True}
    config |= dict.fromkeys(("kernel_initializer", "recurrent_initializer", "bias_initializer"), initializer)
    parts = ("kernel_regularizer", "recurrent_regularizer", "bias_regularizer", "activity_regularizer")
    config |= dict.fromkeys((*parts, "kernel_constraint", "recurrent_constraint", "bias_constraint", "seed"), None)
    return config | {"unit_forget_bias": True, "dropout": 0.0, "recurrent_dropout": 0.0} | options


#: What `tf_keras.layers.LSTM(5).get_config()` has besides these.
KERAS_2 = {"time_major": False, "implementation": 2, "dtype": "float32", "batch_input_shape": (None, 7, 3)}


@pytest.mark.parametrize("more", [{}, KERAS_2, {"dtype": None}], ids=["keras 3", "keras 2", "no dtype"])
def test_a_configuration_builds_the_layer(rng, more):
    weights = keras_cases.random_weights(rng, "lstm")
    x, states = inputs(rng, "lstm")
    layer = LSTM(**config_of_keras_3(return_sequences=True, recurrent_dropout=0.5, **more), weights=weights)
    assert_same_bits(layer(x, states, MASK), LSTM(UNITS, return_sequences=True, weights=weights)(x, states, MASK))


@pytest.mark.parametrize(
    ("dtype", "wanted"),
    [
        (policy("float32"), np.float32),
        (policy("float64"), np.float64),
        (policy("float64", "FloatDTypePolicy"), np.float64),
        (type("DTypePolicy", (), {"name": "float64"})(), np.float64),
        (np.dtype("f8"), np.float64),
        (None, np.float32),
    ],
    ids=["float32", "float64", "Keras 3.0", "an object", "NumPy", "None"],
)
def test_data_types_and_policies(dtype, wanted):
    assert LSTM(3, dtype=dtype).dtype == wanted


@pytest.mark.parametrize(
    "dtype",
    [
        policy("mixed_float16"),
        policy("mixed_bfloat16"),
        policy("float16"),
        policy(None),
        {"module": "keras", "class_name": "QuantizedDTypePolicy", "config": {"name": "float32", "mode": "int8"}},
        {"class_name": "DTypePolicy", "config": "float32"},
        {},
        type("DTypePolicy", (), {"name": "mixed_float16"})(),
        ["float32"],
    ],
    ids=lambda dtype: str(dtype)[:60],
)
def test_a_policy_that_would_change_the_output_is_refused(dtype):
    with pytest.raises(TypeError, match=r"dtype is .*wanted float32 or float64"):
        LSTM(3, dtype=dtype)
    with pytest.raises(TypeError, match=r"dtype is .*wanted float32 or float64"):
        Bidirectional(LSTM(3), dtype=dtype)


def test_configurations_that_would_change_the_output_are_refused():
    with pytest.raises(ValueError, match="time_major is True, wanted False"):
        LSTM(**config_of_keras_3(time_major=True))
    with pytest.raises(TypeError, match="LSTM has no argument quantization_config"):
        LSTM(**config_of_keras_3(quantization_config={"mode": "int8"}))


@pytest.mark.parametrize("outer", ["float32", "float64", policy("float64"), None], ids=str)
@pytest.mark.parametrize("inner", ["float32", "float64"])
@pytest.mark.parametrize("mode", keras_cases.MERGE_MODES)
def test_dtype_of_bidirectional(rng, mode, inner, outer):
    """As in Keras: inputs and states are cast to it before the layers run, the outputs before they are merged."""
    weights = keras_cases.random_weights(rng, "lstm")
    layer = LSTM(UNITS, return_sequences=True, return_state=True, dtype=inner)
    both = Bidirectional(layer, mode, weights + weights, dtype=outer)
    x, states = rng.standard_normal((6, 7, 3)), list(rng.standard_normal((4, 6, UNITS)))
    to = np.dtype(inner if outer is None else "f8" if isinstance(outer, dict) else outer)
    forward = LSTM(UNITS, return_sequences=True, return_state=True, dtype=inner, weights=weights)
    backward = copy.copy(forward)
    backward.go_backwards = True
    rounded = x.astype(to), [part.astype(to) for part in states]
    first, *h = forward(rounded[0], rounded[1][:2])
    second, *g = backward(rounded[0], rounded[1][2:])
    first, second = first.astype(to), second[:, ::-1].astype(to)
    merged = {
        "concat": lambda: [np.concatenate([first, second], -1)],
        "sum": lambda: [first + second],
        "ave": lambda: [(first + second) / 2],
        "mul": lambda: [first * second],
        None: lambda: [first, second],
    }[mode]()
    assert_same_bits(both(x, states), [*merged, *h, *g])


def hard_sigmoid_of_keras_3(x):
    return np.clip(x / 6 + 0.5, 0, 1)


@pytest.mark.parametrize(
    ("function", "wanted"),
    [
        (np.tanh, "tanh"),
        (lambda x: np.maximum(x, 0), "relu"),
        (lambda x: x, "linear"),
        (hard_sigmoid_of_keras_3, "hard_sigmoid"),
        (lambda x: np.clip(0.2 * x + 0.5, 0, 1), Activation.of("hard_sigmoid", 0.2, 0.5)),
        (lambda x: np.where(x > 0, x, 0.2 * x), "leaky_relu"),
        (lambda x: np.where(x > 0, x, 0.01 * x), Activation.of("leaky_relu", 0.01)),
        (lambda x: list(np.tanh(x)), "tanh"),
    ],
)
def test_activations_as_functions(rng, function, wanted):
    """A function is recognized by its values, whatever its name."""
    weights, (x, states) = keras_cases.random_weights(rng, "gru"), inputs(rng, "gru")
    for argument in ("activation", "recurrent_activation"):
        found, named = (GRU(UNITS, weights=weights, **{argument: value})(x, states) for value in (function, wanted))
        assert_same_bits(found, named)


def test_functions_that_the_engine_does_not_have():
    def tanh(x):
        return 2 * np.tanh(x)

    for function in (tanh, lambda x: x[:3], lambda x: "no"):
        with pytest.raises((TypeError, ValueError), match=r"^recurrent_activation is <function"):
            GRU(3, recurrent_activation=function)
    with pytest.raises(TypeError, match=r"^activation is .*failed on a float32 array"):
        SimpleRNN(3, activation=lambda: 0)
