"""Live PyTorch modules that are scripted, or whose weights are computed, against their own outputs."""

import copy
import warnings

import cases
import numpy as np
import pytest

from fastrnn.importers.pytorch import spec_from_module

torch = pytest.importorskip("torch")
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm  # noqa: E402
from torch.nn.utils.parametrize import register_parametrization  # noqa: E402

LENGTHS = (3, 7, 1, 7)


class Doubled(torch.nn.Module):
    def forward(self, weight):
        return 2 * weight


def old_weight_norm(module):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        weight_norm(module, "weight_hh_l0")
        weight_norm(module, "weight_ih_l0")


COMPUTED = {
    "weight_norm": old_weight_norm,
    "parametrizations.weight_norm": lambda module: parametrizations.weight_norm(module, "weight_hh_l0"),
    "spectral_norm": lambda module: spectral_norm(module, "weight_hh_l0"),
    "parametrizations.spectral_norm": lambda module: parametrizations.spectral_norm(module, "weight_ih_l0"),
    "a parametrisation": lambda module: register_parametrization(module, "weight_hh_l0", Doubled()),
    "pruning": lambda module: prune.l1_unstructured(module, "weight_hh_l0", 0.5),
    "pruning twice": lambda module: [prune.random_unstructured(module, "weight_hh_l0", 0.3) for _ in range(2)],
}


def compare(module, layer, rng):
    """Ragged rows with a mask, against PyTorch row by row: packed sequences need modules that hold flat weights."""
    x = rng.standard_normal((len(LENGTHS), 7, 3)).astype("f4")
    mask = np.arange(7) < np.array(LENGTHS)[:, None]
    found, _ = layer(np.where(mask[..., None], x, np.nan).astype("f4"), mask=mask)
    with torch.no_grad():
        for row, length in enumerate(LENGTHS):
            wanted = module(torch.from_numpy(x[row : row + 1, :length]))[0].numpy()
            np.testing.assert_allclose(found[row, :length], wanted[0], atol=1e-5)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", COMPUTED)
@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_computed_weights(rng, kind, name, training):
    torch.manual_seed(1)
    module = getattr(torch.nn, kind)(3, 5, batch_first=True)
    COMPUTED[name](module)
    module.train(training)
    with torch.no_grad():  # what was computed at first is not what is computed now
        for parameter in module.parameters():
            parameter.mul_(1.5)
    before = copy.deepcopy(module.state_dict())
    layer = cases.LAYERS[kind.lower()].from_torch(module)
    assert module.training == training
    for key, value in module.state_dict().items():
        assert torch.equal(value, before[key]), key
    compare(module.eval(), layer, rng)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("LSTM", {}),
        ("LSTM", {"num_layers": 2, "bidirectional": True, "proj_size": 2, "batch_first": True}),
        ("GRU", {"batch_first": True, "bias": False}),
        ("RNN", {"nonlinearity": "relu", "batch_first": True}),
        ("RNN", {}),
        ("LSTMCell", {}),
        ("GRUCell", {}),
        ("RNNCell", {"nonlinearity": "relu"}),
    ],
)
def test_scripted_modules(rng, kind, options):
    module = getattr(torch.nn, kind)(3, 5, **options).eval()
    layer = cases.LAYERS[kind.lower().removesuffix("cell")].from_torch
    found, wanted = layer(torch.jit.script(module)), layer(module)
    assert repr(found) == repr(wanted) and found._engine.fingerprint == wanted._engine.fingerprint
    if options.get("batch_first"):
        compare(module, found, rng)


def test_traced_modules_are_refused_with_the_reason():
    module = torch.jit.trace(torch.nn.LSTM(3, 5), torch.zeros(2, 1, 3))
    with pytest.raises(TypeError, match="module is a traced LSTM, which does not keep its options"):
        spec_from_module(module)
