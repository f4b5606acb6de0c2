"""Descriptions of models: faults by name, widths, folding, PyTorch's modules."""

from dataclasses import replace

import numpy as np
import pytest
from cases import random_spec
from model_cases import assert_near, batch_norm, conv1d, draw, layer_norm, linear, random_model, random_rows, text

import fastrnn
from fastrnn import Activation, Sequential
from fastrnn.models import ops, reference
from fastrnn.models.folding import fold
from fastrnn.models.spec import ModelSpec, op_name


def zeros(*shape):
    return np.zeros(shape, np.float32)


#: What does not fit -> the chain.
FAULTS = {
    "ops is empty, wanted at least one operation": [],
    r"ops\[0\] is int, wanted a LayerSpec, an Activation or an operation such as Linear": [3],
    r"ops\[0\] \(Linear\): weight is list, wanted a float32 or float64 array of shape \(O, I\)": [ops.Linear([[1.0]])],
    r"ops\[0\] \(Linear\): weight is float16, wanted": [ops.Linear(np.zeros((2, 2), "f2"))],
    r"weight has shape \(2,\), wanted \(O, I\)": [ops.Linear(zeros(2))],
    r"weight has shape \(2, 0\), wanted no axis of size 0": [ops.Linear(zeros(2, 0))],
    r"bias has shape \(4,\), wanted \(3,\)": [ops.Linear(zeros(3, 2), zeros(4))],
    r"ops\[1\] \(Linear\) takes vectors of width 5, but gets 3": [ops.Linear(zeros(3, 2)), ops.Linear(zeros(4, 5))],
    r"ops\[1\] \(LSTM\) takes vectors of width 3, but gets 2": [
        ops.Linear(zeros(2, 2)),
        random_spec(np.random.default_rng(0), "lstm", 3, 3),
    ],
    r"ops\[1\] \(Embedding\): takes ids, wanted as the first operation": [
        ops.Linear(zeros(2, 2)),
        ops.Embedding(zeros(3, 2)),
    ],
    r"mask_zero is 1, wanted True or False": [ops.Embedding(zeros(3, 2), mask_zero=1)],
    r"ops\[1\] \(Final\): wanted directly after a recurrent layer": [ops.Linear(zeros(2, 2)), ops.Final()],
    r"ops\[2\] \(Max\): needs steps, but after pooling each row has one vector": [
        ops.Linear(zeros(2, 2)),
        ops.Last(),
        ops.Max(),
    ],
    r"ops\[2\] \(Reverse\): needs steps": [ops.Linear(zeros(2, 2)), ops.Mean(), ops.Reverse()],
    r"ops\[2\] \(Conv1d\): needs steps": [ops.Linear(zeros(2, 2)), ops.Mean(), ops.Conv1d(zeros(2, 2, 1))],
    "no operation gives the width of x": [ops.Softmax(), Activation.of("relu")],
    "stride is 0, wanted an integer of at least 1": [ops.Conv1d(zeros(2, 2, 1), stride=0)],
    "dilation is 1.5, wanted an integer": [ops.Conv1d(zeros(2, 2, 1), dilation=1.5)],
    "padding is -1, wanted an integer of at least 0": [ops.Conv1d(zeros(2, 2, 1), padding=(0, -1))],
    r"padding is \(1, 2, 3\), wanted \(left, right\)": [ops.Conv1d(zeros(2, 2, 1), padding=(1, 2, 3))],
    "padding is 'full', wanted 'valid', 'same' or 'causal'": [ops.Conv1d(zeros(2, 2, 1), padding="full")],
    "padding is 'same' with stride 2, wanted stride 1": [ops.Conv1d(zeros(2, 2, 3), padding="same", stride=2)],
    "stride is 1 and dilation 4611686018427387904, wanted at most": [ops.Conv1d(zeros(2, 2, 3), dilation=2**62)],
    "padding is 4294967296, wanted at most": [ops.Conv1d(zeros(2, 2, 3), padding=2**32)],
    "eps is -1, wanted a number of at least 0": [ops.LayerNorm(zeros(3), eps=-1)],
    "eps is 'x', wanted a number": [ops.LayerNorm(zeros(3), eps="x")],
    "running_var holds -1.0, wanted variances": [ops.BatchNorm(zeros(3), zeros(3) - 1)],
    r"ops\[1\] \(swish\): 'swish' is unknown": [ops.Linear(zeros(2, 2)), Activation("swish", 0, 0)],
    "scale has shape": [ops.Scale(zeros(3, 1), zeros(3))],
}


@pytest.mark.parametrize("message", FAULTS)
def test_faults_are_named(message):
    for make in (lambda chain: ModelSpec(chain).validate(), lambda chain: Sequential(*chain)):
        with pytest.raises((ValueError, TypeError), match=message):
            make(FAULTS[message])


def test_all_faults_are_in_one_message():
    chain = [
        ops.Linear(zeros(3), zeros(4, 4)),
        ops.Final(),
        ops.Conv1d(zeros(2, 2, 1), stride=0),
        ops.Embedding(zeros(3)),
    ]
    with pytest.raises(ValueError) as error:
        ModelSpec(chain).validate()
    for part in ("weight has", "bias has", "directly after", "needs steps", "stride is 0", "takes ids", r"(V, E)"):
        assert part in str(error.value)


def test_a_layer_of_float64_is_refused(rng):
    with pytest.raises(ValueError, match=r"ops\[0\] is an LSTM of float64, wanted float32"):
        Sequential(fastrnn.LSTM(random_spec(rng, "lstm", 3, 3), dtype="f8"))


def test_widths_of_operations_without_weights_come_from_the_others(rng):
    chain = [ops.Reverse(), Activation.of("tanh"), random_spec(rng, "gru", 7, 3, bidirectional=True), ops.Softmax()]
    spec = ModelSpec(chain).validate()
    assert spec.widths == (7, 7, 7, 6, 6) and not spec.takes_ids and not spec.pools
    assert Sequential.from_spec(spec).input_size == 7


def test_sequential_takes_names_layers_and_models(rng):
    layer = fastrnn.GRU(random_spec(rng, "gru", 3, 4))
    inner = Sequential(layer, "ReLU")
    model = Sequential(inner, linear(rng, 4, 2), ops.Mean())
    assert [op_name(op) for op in model.spec.ops] == ["GRU", "relu", "Linear", "Mean"]
    assert (model.input_size, model.output_size, model.num_ids, model.pools) == (3, 2, 0, True)
    assert "Linear(4, 2)" in repr(model) and model.nbytes > 0 and model.isa == fastrnn.info()["isa"]
    with pytest.raises(ValueError, match="activation is 'gelu'"):
        Sequential(layer, "gelu")


def test_batch_first_is_that_of_the_layers(rng):
    spec = random_spec(rng, "gru", 3, 3)
    first, second = fastrnn.GRU(spec), fastrnn.GRU(replace(spec, batch_first=False))
    assert Sequential(first).batch_first and not Sequential(second).batch_first
    assert Sequential(linear(rng, 3, 3)).batch_first and Sequential(second, batch_first=True).batch_first
    with pytest.raises(ValueError, match=r"batch_first is True of ops\[0\] and False of ops\[1\]"):
        Sequential(first, second)


def test_a_model_is_immutable_and_independent_of_its_arrays(rng):
    op = linear(rng, 3, 4)
    weight = op.weight
    model = Sequential(op, "relu")
    x = rng.standard_normal((2, 5, 3)).astype("f4")
    y = model(x)
    weight[...] = 0
    assert model(x).tobytes() == y.tobytes()
    with pytest.raises(AttributeError, match="pools cannot be set: a Sequential is immutable"):
        model.pools = True
    with pytest.raises(AttributeError, match="spec cannot be deleted"):
        del model.spec


def test_a_model_gives_its_weights_back(rng, isa):
    """Bit for bit, from the layout that the kernels read."""
    for width in (1, 7, 16, 33):
        layer = random_spec(rng, "lstm", width, width + 1, 2, True, peephole=True)
        chain = [
            ops.Embedding(draw(rng, 5, width)),
            conv1d(rng, width, width),
            ops.Reverse(),
            ops.Scale(draw(rng, width), draw(rng, width)),
            Activation.of("relu"),
            layer_norm(rng, width),
            layer,
            linear(rng, 2 * width + 2, 3),
        ]
        folded = fold(ModelSpec(chain)).ops
        found = Sequential(*chain, isa=isa).spec.ops
        assert [op_name(op) for op in found] == [op_name(op) for op in folded]
        for given, wanted in zip(found, folded, strict=True):
            if isinstance(wanted, ops.Op):
                for name, _ in wanted.ARRAYS:
                    array = getattr(wanted, name)
                    np.testing.assert_array_equal(getattr(given, name), None if array is None else array.astype("f4"))
        for a, b in zip(found[-2].cells, layer.cells, strict=True):
            np.testing.assert_array_equal(a.weight_ih, b.weight_ih)
            np.testing.assert_array_equal(a.bias_ih, b.bias_ih + b.bias_hh)
            np.testing.assert_array_equal(a.peephole, b.peephole)


FOLDS = {
    "after a linear": (lambda rng: [linear(rng, 5, 4), batch_norm(rng, 4)], ["Linear"]),
    "before a linear": (lambda rng: [batch_norm(rng, 5), linear(rng, 5, 4)], ["Linear"]),
    "after a convolution": (lambda rng: [conv1d(rng, 5, 4), batch_norm(rng, 4)], ["Conv1d"]),
    "before a convolution": (lambda rng: [batch_norm(rng, 5), conv1d(rng, 5, 4, padding=0)], ["Conv1d"]),
    "before a padded convolution": (
        lambda rng: [batch_norm(rng, 5), conv1d(rng, 5, 4, padding=(1, 0))],
        ["Scale", "Conv1d"],
    ),
    "before a layer": (lambda rng: [batch_norm(rng, 5), random_spec(rng, "gru", 5, 3, 2, True)], ["GRU"]),
    "before a layer without bias": (
        lambda rng: [batch_norm(rng, 5), random_spec(rng, "lstm", 5, 3, bias=False)],
        ["LSTM"],
    ),
    "after a layer": (lambda rng: [random_spec(rng, "rnn", 5, 3), batch_norm(rng, 3)], ["RNN", "Scale"]),
    "after an embedding": (lambda rng: [ops.Embedding(draw(rng, 9, 5)), batch_norm(rng, 5)], ["Embedding"]),
    "after a layer norm": (lambda rng: [layer_norm(rng, 5), batch_norm(rng, 5)], ["LayerNorm"]),
    "twice": (lambda rng: [batch_norm(rng, 5), batch_norm(rng, 5)], ["Scale"]),
    "between": (
        lambda rng: [linear(rng, 5, 4), batch_norm(rng, 4), batch_norm(rng, 4), linear(rng, 4, 3)],
        ["Linear"] * 2,
    ),
    "beside activations": (
        lambda rng: [linear(rng, 5, 4), Activation.of("relu"), batch_norm(rng, 4), Activation.of("tanh")],
        ["Linear", "relu", "Scale", "tanh"],
    ),
    "after pooling": (lambda rng: [linear(rng, 5, 4), ops.Mean(), batch_norm(rng, 4)], ["Linear", "Mean", "Scale"]),
}


@pytest.mark.parametrize("name", FOLDS)
def test_batch_norm_is_folded_where_the_product_is_the_same(rng, name):
    make, names = FOLDS[name]
    spec = ModelSpec(make(rng)).validate()
    folded = fold(spec).validate()
    assert [op_name(op) for op in folded.ops] == names
    rows = random_rows(rng, spec)
    for found, wanted in zip(reference.run(folded, rows), reference.run(spec, rows), strict=True):
        assert_near(found, wanted, 1e-6, text(spec))


def test_folding_is_in_float64_and_gives_float32(rng):
    wide = [linear(rng, 5, 4), batch_norm(rng, 4)]
    wide = [
        replace(op, **{name: getattr(op, name).astype("f8") for name, _ in op.ARRAYS if getattr(op, name) is not None})
        for op in wide
    ]
    folded = Sequential(*wide).spec.ops[0]
    assert folded.weight.dtype == folded.bias.dtype == np.float32
    scale = wide[1].running_var
    scale = 1 / np.sqrt(scale + wide[1].eps) * (1 if wide[1].weight is None else wide[1].weight)
    np.testing.assert_array_equal(folded.weight, (wide[0].weight * scale[:, None]).astype("f4"))


def test_folding_twice_changes_nothing(rng):
    for _ in range(20):
        once = fold(random_model(rng))
        twice = fold(once)
        assert [op_name(op) for op in once.ops] == [op_name(op) for op in twice.ops]
