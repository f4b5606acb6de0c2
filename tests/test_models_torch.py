"""Models of PyTorch's modules against the modules themselves."""

import numpy as np
import pytest
from model_cases import assert_near

import fastrnn

torch = pytest.importorskip("torch")
nn = torch.nn


class OutputsOnly(nn.LSTM):
    """As people put an LSTM into an nn.Sequential."""

    def forward(self, x):
        return super().forward(x)[0]


class Gelu(nn.ReLU):
    def forward(self, x):
        return nn.functional.gelu(x)


def randomized(module):
    """Statistics and weights of batch normalisation as after training."""
    torch.manual_seed(1)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
            if part.affine:
                nn.init.normal_(part.weight)
                nn.init.normal_(part.bias)
    return module.eval()


def run(module, x):
    """What an nn.Sequential computes for x (B, T, I), or for ids (B, T)."""
    value = torch.tensor(x)
    with torch.no_grad():
        for part in module:
            if isinstance(part, nn.Sequential):
                value = torch.tensor(run(part, value.numpy()))
            elif isinstance(part, nn.Conv1d | nn.BatchNorm1d):
                value = part(value.transpose(1, 2)).transpose(1, 2)
            else:
                value = part(value)
                value = value[0] if isinstance(value, tuple) else value
    return value.numpy()


MODULES = {
    "tagger": lambda: nn.Sequential(
        nn.Embedding(30, 8, padding_idx=0),
        nn.Dropout(),
        nn.LSTM(8, 6, bidirectional=True, batch_first=True),
        nn.Linear(12, 5),
    ),
    "convolutions": lambda: nn.Sequential(
        nn.Conv1d(4, 8, 3, padding=2, dilation=2),
        nn.BatchNorm1d(8),
        nn.ReLU(),
        nn.Sequential(nn.Conv1d(8, 9, 4, stride=2, bias=False), nn.BatchNorm1d(9, affine=False), nn.ELU(0.7)),
        nn.Conv1d(9, 7, 3, padding="same"),
        OutputsOnly(7, 5, batch_first=True),
        nn.LayerNorm(5),
        nn.LogSoftmax(-1),
    ),
    "activations": lambda: nn.Sequential(
        nn.Linear(4, 9),
        nn.Sigmoid(),
        nn.Linear(9, 9, bias=False),
        nn.Tanh(),
        nn.LayerNorm(9, elementwise_affine=False),
        nn.LeakyReLU(0.2),
        nn.Softsign(),
        nn.Hardsigmoid(),
        nn.Softplus(),
        nn.Threshold(0.1, 0),
        nn.Identity(),
        nn.Softmax(2),
    ),
    "recurrent": lambda: nn.Sequential(
        nn.GRU(4, 5, num_layers=2, batch_first=True),
        nn.BatchNorm1d(5),
        nn.RNN(5, 3, nonlinearity="relu", batch_first=True),
    ),
}


@pytest.mark.parametrize("name", MODULES)
def test_a_sequential_of_pytorch(rng, name):
    torch.manual_seed(0)
    module = randomized(MODULES[name]())
    model = fastrnn.Sequential.from_torch(module)
    x = rng.integers(0, 30, (3, 9)) if name == "tagger" else rng.standard_normal((3, 9, 4)).astype("f4")
    assert_near(model(x), run(module, x), 1e-5, repr(model))


def test_time_major_modules_give_a_time_major_model(rng):
    module = nn.Sequential(nn.LSTM(4, 5), nn.Linear(5, 3))
    model = fastrnn.Sequential.from_torch(module)
    x = rng.standard_normal((9, 2, 4)).astype("f4")
    assert not model.batch_first
    assert_near(model(x), run(module, x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_types_of_weights(rng, dtype):
    module = nn.Sequential(nn.Linear(4, 5), nn.GRU(5, 3, batch_first=True)).to(dtype)
    wanted = fastrnn.Sequential.from_torch(module.float())
    x = rng.standard_normal((2, 4, 4)).astype("f4")
    assert fastrnn.Sequential.from_torch(module.to(dtype))(x).tobytes() == wanted(x).tobytes()


def test_computed_weights(rng):
    linear = nn.utils.parametrizations.weight_norm(nn.Linear(4, 5))
    x = rng.standard_normal((2, 4, 4)).astype("f4")
    assert_near(fastrnn.Sequential(fastrnn.Linear.from_torch(linear))(x), run([linear], x))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: [nn.GELU(), nn.Flatten()], "module 0: GELU is not known.*module 1: Flatten is not known"),
        (lambda: [nn.Sequential(nn.Conv1d(4, 4, 3, groups=2))], "module 0.0: Conv1d: groups is 2, wanted 1"),
        (
            lambda: [nn.Conv1d(4, 4, 3, padding=1, padding_mode="circular")],
            "padding_mode is 'circular', wanted 'zeros'",
        ),
        (lambda: [nn.Softmax(1)], "Softmax: dim is 1, wanted -1"),
        (lambda: [nn.LayerNorm((3, 4))], r"normalized_shape is \(3, 4\), wanted one axis"),
        (lambda: [nn.Embedding(3, 4, max_norm=1.0)], "max_norm is 1.0, wanted None"),
        (lambda: [nn.BatchNorm1d(4, track_running_stats=False)], "track_running_stats is False, wanted True"),
        (lambda: [nn.Softplus(beta=2)], "beta is 2"),
        (lambda: [nn.Threshold(0.1, 20)], "value is 20, wanted 0"),
        (lambda: [Gelu()], "Gelu is not known"),
        (lambda: [nn.LSTMCell(3, 4)], "LSTMCell is not known"),
        (lambda: [nn.Linear(3, 4, device="meta")], "weight is a tensor without data, on the meta device"),
        (lambda: [nn.Linear(3, 4, dtype=torch.complex64)], "weight is complex64, wanted a float32 or float64"),
    ],
)
def test_what_is_not_known_is_named(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        fastrnn.Sequential.from_torch(nn.Sequential(*make()))


def test_from_torch_of_one_operation(rng):
    assert fastrnn.Embedding.from_torch(nn.Embedding(3, 4), mask_zero=True).mask_zero
    conv = nn.Conv1d(3, 4, 5, stride=2, padding=1, dilation=3)
    op = fastrnn.Conv1d.from_torch(conv)
    assert (op.stride, op.left, op.right, op.dilation) == (2, 1, 1, 3)
    np.testing.assert_array_equal(op.weight, conv.weight.detach().numpy())
    with pytest.raises(TypeError, match=r"module is Conv1d, wanted a torch.nn module for Linear"):
        fastrnn.Linear.from_torch(conv)
    for bad in (nn.ReLU(), nn.LSTM(3, 3), object(), None):
        with pytest.raises((TypeError, ValueError)):
            fastrnn.Linear.from_torch(bad)
    with pytest.raises(TypeError, match=r"module is Linear, wanted a torch\.nn\.Sequential"):
        fastrnn.Sequential.from_torch(nn.Linear(3, 4))
