"""The float64 reference compared with PyTorch in float64, and with results by hand for options that PyTorch lacks."""

from dataclasses import replace
from math import exp, log, tanh

import cases
import numpy as np
import pytest

from fastrnn import reference
from fastrnn.spec import ACTIVATIONS, Activation, CellSpec, LayerSpec

KINDS = {
    "lstm": ("lstm", {}),
    "lstm-proj": ("lstm", {"proj_size": 2}),
    "gru": ("gru", {}),
    "rnn-tanh": ("rnn", {"nonlinearity": "tanh"}),
    "rnn-relu": ("rnn", {"nonlinearity": "relu"}),
}


def sigmoid(x):
    return 1 / (1 + exp(-x))


#: name -> value at x = -1/2 and at x = 2, with alpha = 3/4 and beta = 1/4
VALUES = {
    "sigmoid": (sigmoid(-0.5), sigmoid(2)),
    "tanh": (tanh(-0.5), tanh(2)),
    "relu": (0, 2),
    "linear": (-0.5, 2),
    "hard_sigmoid": (0, 1),
    "leaky_relu": (-0.375, 2),
    "elu": (0.75 * (exp(-0.5) - 1), 2),
    "softsign": (-1 / 3, 2 / 3),
    "softplus": (log(1 + exp(-0.5)), log(1 + exp(2))),
    "affine": (-0.125, 1.75),
    "scaled_tanh": (0.75 * tanh(-0.125), 0.75 * tanh(0.5)),
    "thresholded_relu": (0, 2),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_of_the_list_has_an_equation(name):
    found = reference.activate(Activation(name, 0.75, 0.25), np.array([-0.5, 2.0]))
    np.testing.assert_allclose(found, VALUES[name], rtol=1e-15)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("name", KINDS)
def test_equals_torch_float64(rng, name, num_layers, bidirectional, bias):
    torch = pytest.importorskip("torch")
    import live_torch

    from fastrnn.importers.pytorch import spec_from_module

    kind, options = KINDS[name]
    module = live_torch.module(
        kind, 3, 5, num_layers, dtype=torch.float64, bidirectional=bidirectional, bias=bias, batch_first=True, **options
    )
    spec = spec_from_module(module)
    batch = cases.random_batch(rng, spec, (4, 1, 6, 4, 1, 6), np.float64)
    for lengths in (None, batch.lengths):
        x = np.nan_to_num(batch.x) if lengths is None else batch.x
        for state in (None, batch.state):
            found = reference.run(spec, x, state, lengths)
            cases.assert_close(found, live_torch.run(module, x, state, lengths), 1e-12)


@pytest.mark.parametrize("kind", cases.LAYERS)
def test_rows_are_independent_of_their_batch(rng, kind):
    spec = cases.random_spec(rng, kind, 3, 4, 2, True)
    batch = cases.random_batch(rng, spec)
    y, h, _ = reference.run(spec, batch.x, batch.state, batch.lengths)
    for row, length in enumerate(batch.lengths):
        one = slice(row, row + 1)
        state = tuple(s[:, one] for s in batch.state) if kind == "lstm" else batch.state[:, one]
        y1, h1, _ = reference.run(spec, batch.x[one, :length], state)
        np.testing.assert_array_equal(y[row, :length], y1[0])
        np.testing.assert_array_equal(h[:, row], h1[:, 0])
        assert not y[row, length:].any()


def test_zero_length_keeps_the_initial_state(rng):
    spec = cases.random_spec(rng, "lstm", 3, 4, 2, True)
    batch = cases.random_batch(rng, spec, (0, 2))
    _, h, c = reference.run(spec, batch.x, batch.state, batch.lengths)
    np.testing.assert_array_equal(h[:, 0], batch.state[0][:, 0])
    np.testing.assert_array_equal(c[:, 0], batch.state[1][:, 0])


def test_carry_repeats_each_directions_final_h(rng):
    spec = cases.random_spec(rng, "gru", 3, 4, 2, True)
    batch = cases.random_batch(rng, spec)
    y, h, _ = reference.run(spec, batch.x, batch.state, batch.lengths, "carry")
    for row, length in enumerate(batch.lengths):
        wanted = np.concatenate([h[-2, row], h[-1, row]])
        np.testing.assert_array_equal(y[row, length:], np.broadcast_to(wanted, y[row, length:].shape))


def one_unit(kind, weights_ih, weights_hh, **options):
    """A layer of one input and one hidden unit."""

    def column(values):
        return np.array(values, float)[:, None]

    return LayerSpec(kind, [CellSpec(column(weights_ih), column(weights_hh), **options)], 1, 1)


def test_lstm_options_by_hand():
    spec = one_unit(
        "lstm", [0.5, -0.7, 1.1, 0.3], [0.2, 0.4, -0.6, 0.9],
        peephole=np.array([[0.8], [-0.5], [1.7]]), cell_clip=0.6, gate_clip=0.75,
    )  # fmt: skip
    x, h, c = 1.5, -0.4, 1.2
    i = sigmoid(0.75)  # 0.5 * 1.5 + 0.2 * -0.4 + 0.8 * 1.2 = 1.63
    f = sigmoid(-0.75)  # -0.7 * 1.5 + 0.4 * -0.4 - 0.5 * 1.2 = -1.81
    g = tanh(0.75)  # 1.1 * 1.5 - 0.6 * -0.4 = 1.89
    assert f * c + i * g > 0.6
    o = sigmoid(0.75)  # 0.3 * 1.5 + 0.9 * -0.4 + 1.7 * 0.6 = 1.11; the old or unclipped cell state would give more
    state = ([[[h]]], [[[c]]])
    found = reference.run(spec, [[[x]]], state)
    cases.assert_close(found, (o * tanh(0.6),) * 2 + (0.6,), 1e-15)

    spec = replace(spec, cells=[replace(spec.cells[0], gate_clip=None)])
    found = reference.run(spec, [[[x]]], state)
    cases.assert_close(found, (sigmoid(1.11) * tanh(0.6),) * 2 + (0.6,), 1e-15)

    spec = replace(spec, cells=[replace(spec.cells[0], coupled=True, cell_clip=None)])
    i = sigmoid(1.63)
    c = (1 - i) * 1.2 + i * tanh(1.89)
    h = sigmoid(0.09 + 1.7 * c) * tanh(c)
    cases.assert_close(reference.run(spec, [[[x]]], state), (h, h, c), 1e-15)


def test_proj_clip_by_hand():
    spec = one_unit("lstm", [1, 1, 1, 1], [0, 0, 0, 0], weight_hr=np.array([[-5.0]]), proj_clip=0.25)
    _, h, _ = reference.run(replace(spec, proj_size=1), [[[1.0]]])
    assert h == -0.25


@pytest.mark.parametrize("after", [True, False])
def test_gru_reset_by_hand(after):
    spec = one_unit(
        "gru", [0.5, -0.7, 1.1], [0.2, 0.4, -0.6],
        bias_ih=np.array([0.1, 0.2, 0.3]), bias_hh=np.array([0.4, 0.5, 0.6]), linear_before_reset=after,
    )  # fmt: skip
    x, h = 1.5, -0.4
    r = sigmoid(0.5 * x + 0.1 + 0.2 * h + 0.4)
    z = sigmoid(-0.7 * x + 0.2 + 0.4 * h + 0.5)
    n = tanh(1.1 * x + 0.3 + (r * (-0.6 * h + 0.6) if after else -0.6 * (r * h) + 0.6))
    found = reference.run(spec, [[[x]]], [[[h]]])
    cases.assert_close(found, ((1 - z) * n + z * h,) * 2 + (None,), 1e-15)


@pytest.mark.parametrize(
    ("name", "alpha", "beta", "points"),
    [
        ("sigmoid", None, None, {0: 0.5, 2: sigmoid(2), -800: 0, 800: 1}),
        ("tanh", None, None, {0: 0, 2: tanh(2)}),
        ("relu", None, None, {-2: 0, 3: 3}),
        ("linear", None, None, {-2: -2}),
        ("hard_sigmoid", None, None, {-3: 0, 1: 0.7, 3: 1}),
        ("leaky_relu", 0.5, None, {-2: -1, 3: 3}),
        ("elu", 2, None, {-1: 2 * (exp(-1) - 1), 3: 3}),
        ("softsign", None, None, {-1: -0.5, 3: 0.75}),
        ("softplus", None, None, {0: np.log(2), 800: 800, -800: 0}),
        ("affine", 2, 0.5, {-2: -3.5}),
        ("scaled_tanh", 2, 0.5, {2: 2 * tanh(1)}),
        ("thresholded_relu", 1.5, None, {1.5: 0, 2: 2, -3: 0}),
    ],
)
def test_activations_by_hand(name, alpha, beta, points):
    found = reference.activate(Activation.of(name, alpha, beta), np.array(list(points), float))
    np.testing.assert_allclose(found, list(points.values()), rtol=1e-14)
