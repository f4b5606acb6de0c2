"""Flax's parameters, without Flax: stored ones of every cell with their outputs, and what is refused."""

from pathlib import Path

import numpy as np
import pytest

import fastrnn

GOLDEN = dict(np.load(Path(__file__).parent / "golden" / "flax.npz"))
CELLS = sorted({name.split("/")[0] for name in GOLDEN if "/" in name})


def params_of(cell):
    """The stored parameters as the nested dictionary that they were."""
    tree = {}
    for name, array in GOLDEN.items():
        owner, *path = name.split("/")
        if owner == cell and path[0] == "params":
            node = tree
            for part in path[1:-1]:
                node = node.setdefault(part, {})
            node[path[-1]] = array
    return tree


def load(cell, params, *arguments, **options):
    if "SimpleCell" in cell:
        return fastrnn.RNN.from_flax(params, *arguments, nonlinearity="tanh", **options)
    return (fastrnn.GRU if "GRU" in cell else fastrnn.LSTM).from_flax(params, *arguments, **options)


def test_every_cell_is_there():
    kinds = ("GRUCell", "LSTMCell", "OptimizedLSTMCell", "SimpleCell")
    assert [f"{module}.{kind}" for module in ("linen", "nnx") for kind in kinds] == CELLS


@pytest.mark.parametrize("cell", CELLS)
def test_stored_answers(cell):
    layer = load(cell, params_of(cell))
    x, lengths = GOLDEN["x"].copy(), GOLDEN["lengths"]
    mask = np.arange(x.shape[1]) < lengths[:, None]
    x[~mask] = np.nan
    for options in ({"lengths": lengths}, {"mask": mask}):
        y, _ = layer(x, **options)
        np.testing.assert_allclose(y, GOLDEN[f"{cell}/y"], atol=2e-6)


class Variable:
    """As nnx keeps an array."""

    def __init__(self, value):
        self.value = value


def mapped(tree, change):
    return {name: mapped(node, change) for name, node in tree.items()} if isinstance(tree, dict) else change(tree)


@pytest.mark.parametrize("cell", CELLS)
def test_variables_and_short_types(cell):
    params = params_of(cell)
    wanted = load(cell, params)._engine.fingerprint
    assert load(cell, mapped(params, Variable))._engine.fingerprint == wanted
    assert load(cell, mapped(params, lambda array: array.astype("f8")), dtype="f4")._engine.fingerprint == wanted
    short = mapped(params, lambda array: array.astype(pytest.importorskip("ml_dtypes").bfloat16))
    widened = mapped(short, lambda array: array.astype("f4"))
    assert load(cell, short)._engine.fingerprint == load(cell, widened)._engine.fingerprint


def test_prefix_chooses_and_the_error_lists():
    first, second = params_of("linen.LSTMCell"), params_of("nnx.OptimizedLSTMCell")
    model = {"encoder": first, "decoder": second, "other": params_of("linen.GRUCell"), "head": {"kernel": np.ones(3)}}
    with pytest.raises(
        ValueError, match=r"several of the kind lstm .* prefix='encoder\.params\.cell': lstm; prefix='decoder\.cell'"
    ) as caught:
        fastrnn.LSTM.from_flax(model)
    assert "gru" in str(caught.value)
    for prefix in ("encoder", "encoder."):
        found = fastrnn.LSTM.from_flax(model, prefix)
        assert found._engine.fingerprint == fastrnn.LSTM.from_flax(first)._engine.fingerprint
    assert fastrnn.GRU.from_flax(model).hidden_size == 4
    with pytest.raises(ValueError, match=r"none of the kind rnn under 'head'"):
        fastrnn.RNN.from_flax(model, "head", nonlinearity="tanh")


def test_every_reason_is_given():
    params = params_of("linen.LSTMCell")
    cell = next(iter(params["params"].values()))
    cell["ii"] = {"kernel": np.ones((3, 5), "f4")}
    del cell["if"]
    cell["hg"]["scale"] = np.ones(4, "f4")
    cell["ln"] = {"scale": np.ones(4, "f4")}
    with pytest.raises(ValueError) as caught:
        fastrnn.LSTM.from_flax(params)
    for reason in (r"if.kernel is missing", "hg.scale is surplus", "ln is surplus", "have kernels of shapes (3, 5)"):
        assert reason in str(caught.value)


def test_what_is_not_supported():
    dense = {"kernel": np.ones((4, 4), "f4")}
    with pytest.raises(ValueError, match=r"none of the kind gru .*MGUCell, which is not supported"):
        fastrnn.GRU.from_flax({"cell": {name: dense for name in ("if", "in", "hf", "hn")}})
    with pytest.raises(TypeError, match="params is list"):
        fastrnn.GRU.from_flax([])
    with pytest.raises(TypeError, match="prefix is 3"):
        fastrnn.GRU.from_flax({}, 3)
    with pytest.raises(TypeError, match="nonlinearity is missing"):
        fastrnn.RNN.from_flax(params_of("linen.SimpleCell"))
    with pytest.raises(TypeError, match=r"\.kernel is int64"):
        fastrnn.LSTM.from_flax(mapped(params_of("linen.LSTMCell"), lambda array: array.astype("i8")))
