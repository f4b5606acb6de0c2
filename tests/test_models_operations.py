"""Each operation of a model against the reference in float64 and against PyTorch."""

import numpy as np
import pytest
from cases import PARAMETERS, random_spec
from model_cases import (
    LENGTHS,
    WIDTHS,
    assert_near,
    batch_norm,
    conv1d,
    draw,
    expected,
    layer_norm,
    linear,
    pad,
    random_model,
    random_rows,
    recurrent,
    text,
)

from fastrnn import Activation, Sequential, _core
from fastrnn.commands import model_witness
from fastrnn.models import ops
from fastrnn.models.spec import ModelSpec


@pytest.fixture(autouse=True, scope="module")
def one_thread_of_pytorch():
    """Its calls are so small here that threads only cost."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


#: name -> a function that draws a chain for vectors of a width
CHAINS = {
    "embedding": lambda rng, width: [ops.Embedding(draw(rng, 11, width))],
    "linear": lambda rng, width: [linear(rng, width, int(rng.choice(WIDTHS)))],
    "conv1d": lambda rng, width: [conv1d(rng, width, int(rng.choice(WIDTHS)))],
    "causal conv1d": lambda rng, width: [conv1d(rng, width, int(rng.choice(WIDTHS)), causal=True)],
    "layer norm": lambda rng, width: [linear(rng, width, width), layer_norm(rng, width)],
    "batch norm": lambda rng, width: [batch_norm(rng, width)],
    "softmax": lambda rng, width: [batch_norm(rng, width), ops.Softmax()],
    "log softmax": lambda rng, width: [linear(rng, width, width), ops.LogSoftmax()],
    "last": lambda rng, width: [linear(rng, width, width), ops.Last()],
    "first": lambda rng, width: [linear(rng, width, width), ops.First(), linear(rng, width, 5)],
    "mean": lambda rng, width: [linear(rng, width, width), ops.Mean(), linear(rng, width, 5)],
    "max": lambda rng, width: [linear(rng, width, width), ops.Max(), layer_norm(rng, width)],
    "final": lambda rng, width: [recurrent(rng, width, 5), ops.Final(), ops.Softmax()],
    "reverse": lambda rng, width: [ops.Reverse(), recurrent(rng, width, 5, forward=True), ops.Reverse()],
}


def assert_matches(rng, spec, lengths=LENGTHS, tolerance=1e-5):
    """Compare a padded batch with the reference on every instruction set, and each row with PyTorch."""
    rows = random_rows(rng, spec, lengths)
    wanted = expected(spec, rows)
    for isa in _core.available_isas():
        y = Sequential.from_spec(spec, isa=isa)(pad(rows), lengths=lengths)
        assert y.shape == wanted.shape and y.dtype == np.float32
        assert_near(y, wanted, tolerance, f"{isa}: {text(spec)}")
    _, run = model_witness.from_spec(spec)
    for row, found, steps in zip(rows, y, wanted, strict=True):
        result = run(row)
        if spec.pools:
            assert_near(found, result, tolerance, text(spec))
        elif spec.ops and not getattr(spec.ops[0], "mask_zero", False):
            assert len(result) == spec.output_steps(len(row)) <= len(steps)
            assert_near(found[: len(result)], result, tolerance, text(spec))


@pytest.mark.parametrize("name", CHAINS)
def test_an_operation_matches_reference_and_pytorch(rng, name):
    for width in WIDTHS:
        assert_matches(rng, ModelSpec(CHAINS[name](rng, width)).validate())


@pytest.mark.parametrize("seed", range(12))
def test_random_chains_match_reference_and_pytorch(seed):
    rng = np.random.default_rng(seed)
    for _ in range(8):
        assert_matches(rng, random_model(rng))


@pytest.mark.parametrize("name", PARAMETERS)
def test_every_activation(rng, name):
    activation = Activation.of(name, *PARAMETERS[name])
    spec = ModelSpec([linear(rng, 7, 17), activation]).validate()
    assert_matches(rng, spec)
    assert_matches(rng, ModelSpec([*spec.ops, ops.Last(), activation, linear(rng, 17, 3)]))


@pytest.mark.parametrize("steps", [0, 1, 2, 7])
@pytest.mark.parametrize("rows", [0, 1, 3])
def test_empty_batches_and_rows(rng, rows, steps):
    for pools in (False, True):
        spec = random_model(rng, pools=pools)
        x = random_rows(rng, spec, [steps] * rows or [0])
        x = pad(x) if rows else np.zeros((0, steps, *x[0].shape[1:]), x[0].dtype)
        y = Sequential.from_spec(spec)(x)
        width = spec.widths[-1]
        assert y.shape == ((rows, width) if pools else (rows, spec.output_steps(steps), width))
        if rows:
            assert_near(y, expected(spec, list(x)))


def test_a_row_without_steps_pools_to_zeros(rng):
    weight, bias = draw(rng, 3, 4), draw(rng, 3)
    for pool in (ops.Last(), ops.First(), ops.Mean(), ops.Max()):
        chain = [linear(rng, 2, 4), pool]
        y = Sequential(*chain)(np.full((2, 3, 2), np.nan, "f4"), lengths=[0, 0])
        assert y.shape == (2, 4) and not y.any()
        y = Sequential(*chain, ops.Linear(weight, bias))(np.full((1, 3, 2), np.nan, "f4"), lengths=[0])
        assert_near(y[0], bias)
    for kind in ("lstm", "gru", "rnn"):
        model = Sequential(random_spec(rng, kind, 2, 3, bidirectional=True), ops.Final())
        assert not model(np.full((1, 3, 2), np.nan, "f4"), lengths=[0]).any()


@pytest.mark.parametrize("name", ["last", "first", "mean", "max", "softmax", "log softmax", "layer norm", "conv1d"])
def test_nan_in_real_steps(rng, name):
    """NaN in, NaN out, and nowhere else."""
    scale = ops.Scale(np.ones(5, "f4"), np.zeros(5, "f4"))
    chain = [scale, *(op for op in CHAINS[name](rng, 5) if not isinstance(op, ops.Linear))]
    spec = ModelSpec(chain).validate()
    rows = random_rows(rng, spec, (4, 4, 4))
    rows[1][2, 3] = np.nan
    y = Sequential.from_spec(spec)(np.stack(rows))
    with np.errstate(invalid="ignore"):
        wanted = expected(spec, rows)
    np.testing.assert_array_equal(np.isnan(y), np.isnan(wanted))
    assert np.isnan(y).any() or name in ("last", "first")
    assert not np.isnan(y[[0, 2]]).any()
    assert_near(y, wanted)


def test_softmax_of_large_numbers(rng, isa):
    spec = ModelSpec([ops.Scale(np.full(17, 300, "f4"), np.zeros(17, "f4")), ops.Softmax()])
    x = rng.standard_normal((1, 3, 17)).astype("f4")
    x[0, 1] -= 1e6
    x[0, 2, :5] = -np.inf
    for op in (ops.Softmax(), ops.LogSoftmax()):
        spec = ModelSpec([spec.ops[0], op])
        y = Sequential.from_spec(spec, isa=isa)(x)
        scaled = (x.astype("f8") * 300).astype("f4")
        wanted = expected(ModelSpec([ops.Scale(np.ones(17, "f4"), np.zeros(17, "f4")), op]), list(scaled))
        np.testing.assert_allclose(y, wanted, rtol=3e-5, atol=1e-6)
        if isinstance(op, ops.Softmax):
            np.testing.assert_allclose(y.sum(axis=-1), 1, rtol=1e-6)


def test_layer_norm_of_a_large_mean(rng, isa):
    """The variance is that of the differences from the mean, and not a difference of large numbers."""
    x = (rng.standard_normal((1, 4, 33)) + 1000).astype("f4")
    spec = ModelSpec([ops.Scale(np.ones(33, "f4"), np.zeros(33, "f4")), ops.Reverse(), layer_norm(rng, 33)])
    y = Sequential.from_spec(spec, isa=isa)(x)
    assert_near(y, expected(spec, list(x)), 2e-4)


def test_a_causal_convolution_reads_no_later_step(rng):
    for _ in range(10):
        op = conv1d(rng, 3, 5, causal=True)
        model = Sequential(op)
        x = rng.standard_normal((1, 9, 3)).astype("f4")
        y = model(x)
        for step in range(y.shape[1]):
            changed = x.copy()
            changed[:, step * op.stride + 1 :] = np.nan
            np.testing.assert_array_equal(model(changed)[:, step], y[:, step])


@pytest.mark.parametrize("kernel_size", [1, 2, 3, 7])
def test_same_padding_keeps_the_number_of_steps(rng, kernel_size):
    for dilation in (1, 2, 3):
        op = ops.Conv1d(draw(rng, 4, 3, kernel_size), padding="same", dilation=dilation)
        model = Sequential(op)
        assert model.keeps_steps and [model.output_steps(n) for n in range(9)] == list(range(9))
        assert_matches(rng, ModelSpec([op]))


def test_output_steps_are_those_of_the_results(rng):
    for _ in range(20):
        spec = random_model(rng, pools=False)
        model = Sequential.from_spec(spec)
        lengths = np.arange(12)
        steps = model.output_steps(lengths)
        rows = random_rows(rng, spec, lengths)
        if not model.mask_zero:
            assert [len(y) for y in model(rows)] == steps.tolist() == [model.output_steps(int(n)) for n in lengths]
        assert model(pad(rows), lengths=lengths).shape[1] == steps[-1]
