"""A row of a model has the same bits alone, in any batch, in any order, beside NaN, and on any number of threads."""

import threading

import numpy as np
import pytest
from bits import assert_same_bits
from cases import random_spec
from model_cases import conv1d, draw, linear, pad, random_model, random_rows, text

import fastrnn
from fastrnn import Sequential, _core
from fastrnn.models import ops

LENGTHS = (4, 0, 9, 1, 4, 9, 2, 1)
MANY = tuple(n % 23 for n in range(7, 90))


@pytest.fixture
def threads():
    """Set the number of threads; the threshold of 0 shares every call that can be divided."""
    before = fastrnn.get_num_threads()
    yield lambda n: _core.set_num_threads(n, 0)
    fastrnn.set_num_threads(before)


def large(rng):
    """A model whose parts are large enough that threads share each of them."""
    return Sequential(
        ops.Embedding(draw(rng, 50, 40)),
        conv1d(rng, 40, 70, causal=True, stride=1),
        "relu",
        random_spec(rng, "gru", 70, 33, 2, bidirectional=True),
        ops.LayerNorm(draw(rng, 66)),
        linear(rng, 66, 129),
        ops.LogSoftmax(),
    )


@pytest.mark.parametrize("seed", range(12))
def test_a_row_alone_equals_it_in_any_batch(isa, seed):
    rng = np.random.default_rng(seed)
    for _ in range(4):
        spec = random_model(rng)
        model = Sequential.from_spec(spec, isa=isa)
        rows = random_rows(rng, spec, LENGTHS)
        y = model(pad(rows), lengths=LENGTHS)
        message = text(spec)
        for row, result in zip(rows, y, strict=True):
            alone = model(row[None])[0]
            assert_same_bits(result if model.pools else result[: len(alone)], alone, message)
        for count in (8, 5, 2):
            order = rng.permutation(8)[:count]
            part = model(pad([rows[i] for i in order], 9), lengths=np.array(LENGTHS)[order])
            assert_same_bits(part, y[order], message)
        long = pad(rows, 30)
        other = model(long, lengths=LENGTHS)
        assert_same_bits(other if model.pools else other[:, : y.shape[1]], y, message)


@pytest.mark.parametrize("count", [2, 3])
def test_threads_give_the_same_bits(threads, count):
    for seed in range(6):
        rng = np.random.default_rng(seed)
        models = [large(rng), *(Sequential.from_spec(random_model(rng)) for _ in range(4))]
        for model in models:
            for lengths in (MANY, (60,), (5, 5), (40, 1, 1)):
                rows = random_rows(rng, model.spec, lengths)
                threads(1)
                wanted = model(pad(rows), lengths=lengths)
                threads(count)
                assert_same_bits(model(pad(rows), lengths=lengths), wanted, repr(model))
                assert_same_bits(model(rows), model(rows), repr(model))


def test_a_model_may_be_called_by_threads_at_once(rng):
    model = large(rng)
    inputs = [random_rows(rng, model.spec, MANY[i : i + 20]) for i in range(6)]
    wanted = [model(rows) for rows in inputs]
    found = [None] * len(inputs)

    def run(i):
        for _ in range(5):
            found[i] = model(inputs[i])

    workers = [threading.Thread(target=run, args=(i,)) for i in range(len(inputs))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for a, b in zip(found, wanted, strict=True):
        assert_same_bits(a, b)


def test_a_layer_alone_has_the_bits_of_the_layer(rng, isa):
    for kind in ("lstm", "gru", "rnn"):
        for bidirectional in (False, True):
            layer = fastrnn.layers.LAYERS[kind](
                random_spec(rng, kind, 9, 17, 2, bidirectional, 5 if kind == "lstm" else 0), backend="fused", isa=isa
            )
            x = pad(random_rows(rng, Sequential(layer).spec, LENGTHS))
            wanted, last = layer(x, lengths=LENGTHS)
            assert_same_bits(Sequential(layer, isa=isa)(x, lengths=LENGTHS), wanted)
            h = last[0] if kind == "lstm" else last
            final = np.concatenate(list(h[-layer.num_directions :]), axis=-1)
            assert_same_bits(Sequential(layer, ops.Final(), isa=isa)(x, lengths=LENGTHS), final)
