"""Calls of models: every form of input, masks, ids, and errors by name."""

import numpy as np
import pytest
from bits import assert_same_bits, poison
from cases import random_spec
from model_cases import (
    LENGTHS,
    assert_near,
    conv1d,
    draw,
    expected,
    linear,
    pad,
    places,
    random_model,
    random_rows,
    recurrent,
)

import fastrnn
from fastrnn import Sequential
from fastrnn.models import ops, reference
from fastrnn.models.spec import ModelSpec

SEEDS = range(10)


def tagger(rng, mask_zero=False, **options):
    """ids -> vectors of every step"""
    spec = random_spec(rng, "lstm", 8, 6, bidirectional=True)
    return Sequential(ops.Embedding(draw(rng, 20, 8), mask_zero), spec, linear(rng, 12, 5), ops.LogSoftmax(), **options)


def rows_of(model, y, rows):
    """The results of each row of a padded call."""
    return [r[: model.output_steps(len(row))] for r, row in zip(y, rows, strict=True)]


@pytest.mark.parametrize("seed", SEEDS)
def test_every_form_of_input_gives_the_same_bits(seed):
    rng = np.random.default_rng(seed)
    for _ in range(4):
        spec = random_model(rng)
        model = Sequential.from_spec(spec)
        rows = random_rows(rng, spec)
        x = pad(rows)
        y = model(x, lengths=LENGTHS)
        assert_near(y, expected(spec, rows))
        lists, packed = model(rows), model(fastrnn.pack(x, LENGTHS))
        torch = pytest.importorskip("torch")
        full = [i for i, n in enumerate(LENGTHS) if n]
        theirs = torch.nn.utils.rnn.pack_sequence([torch.tensor(rows[i]) for i in full], enforce_sorted=False)
        theirs = model(theirs)
        if model.pools:
            assert_same_bits(lists, y)
            assert_same_bits(packed, y)
            assert_same_bits(theirs, y[full])
        elif model.mask_zero and not model.keeps_steps:
            counts = [model.output_steps(np.count_nonzero(row)) for row in rows]
            for found in (lists, fastrnn.unpack_sequence(packed)):
                assert [len(r) for r in found] == counts
                assert_same_bits(found, [r[:n] for r, n in zip(y, counts, strict=True)])
        else:
            assert_same_bits(lists, rows_of(model, y, rows))
            assert_same_bits(fastrnn.unpack_sequence(packed), lists)
            assert isinstance(theirs, torch.nn.utils.rnn.PackedSequence)
            back = torch.nn.utils.rnn.unpack_sequence(theirs) if (theirs.batch_sizes.numel()) else []
            for result, i in zip(back, full, strict=False):
                assert_same_bits(result.numpy(), lists[i])
        time_major = Sequential.from_spec(ModelSpec(spec.ops, batch_first=False))
        turned = time_major(x.swapaxes(0, 1), lengths=LENGTHS)
        assert_same_bits(turned if model.pools else turned.swapaxes(0, 1), y)
        for row, result in zip(rows, y, strict=True):
            alone = model(row)
            assert_same_bits(alone, result if model.pools else result[: len(alone)])
        out = poison(y.shape)
        assert model(x, lengths=LENGTHS, out=out) is out
        assert_same_bits(out, y)


@pytest.mark.parametrize("seed", SEEDS)
def test_masks_of_any_pattern_remove_steps(seed):
    rng = np.random.default_rng(seed)
    for _ in range(4):
        spec = random_model(rng)
        model = Sequential.from_spec(spec)
        rows = random_rows(rng, spec, (7,) * 5)
        x, mask = np.stack(rows), rng.random((5, 7)) < 0.6
        mask[0], mask[1] = True, False
        lengths = np.array([7, 7, 4, 7, 0])
        counted = mask & (np.arange(7) < lengths[:, None])
        garbage = x.copy()
        garbage[~counted] = -(10**9) if model.num_ids else np.nan
        y = model(garbage, mask=mask, lengths=lengths)
        left = [row[keep] for row, keep in zip(rows, counted, strict=True)]
        if model.pools:
            assert_near(y, np.stack(reference.run(spec, left)))
            continue
        wanted = np.zeros_like(y)
        for padded, row, keep, result in zip(wanted, left, counted, reference.run(spec, left), strict=True):
            steps = places(spec, row, len(result))
            padded[np.flatnonzero(keep)[steps] if model.keeps_steps else steps] = result
        assert_near(y, wanted)


def test_mask_zero_is_a_mask_of_the_ids(rng):
    plain, masked = tagger(np.random.default_rng(1)), tagger(np.random.default_rng(1), mask_zero=True)
    ids = rng.integers(1, 20, (4, 6))
    assert_same_bits(masked(ids), plain(ids))
    ids[0, 2:4] = ids[1, 0] = ids[2, 5] = 0
    ids[3] = 0
    assert_same_bits(masked(ids), plain(ids, mask=ids != 0))
    assert_same_bits(masked(ids[:3], lengths=[6, 3, 4]), plain(ids[:3], mask=ids[:3] != 0, lengths=[6, 3, 4]))
    assert not masked(ids)[ids == 0].any()
    lists = masked(list(ids))
    assert_same_bits(np.stack(lists), masked(ids))
    packed = masked(fastrnn.pack(ids, [6, 4, 5, 2]))
    y, _ = fastrnn.unpack(packed)
    assert_same_bits(y, masked(ids, lengths=[6, 4, 5, 2]))


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u4", ">i4", "i8", "u8"])
def test_ids_of_every_integer_type(rng, dtype):
    model = tagger(rng)
    ids = rng.integers(0, 20, (3, 4))
    wanted = model(ids)
    assert_same_bits(model(ids.astype(dtype)), wanted)
    assert_same_bits(model(np.asfortranarray(ids.astype(dtype))), wanted)
    assert_same_bits(model(np.repeat(ids.astype(dtype), 2, axis=1)[:, ::2]), wanted)
    assert_same_bits(model(ids.tolist()), wanted)
    assert_same_bits(model(ids[0].tolist()), wanted[0])
    assert_same_bits(
        model([ids[0, :2].tolist(), ids[1].tolist()]), [wanted[0, :2], wanted[1]][:0] or model([ids[0, :2], ids[1]])
    )


def test_an_id_out_of_range_is_named(rng):
    model = tagger(rng)
    ids = rng.integers(0, 20, (3, 4))
    ids[2, 1] = 20
    message = r"20, but the embedding has 20 rows: wanted 0 to 19"
    out = poison((3, 4, 5))
    for call, place in (
        (lambda: model(ids, out=out), r"x\[2, 1\]"),
        (lambda: model(ids[2]), r"x\[1\]"),
        (lambda: model(ids, lengths=[0, 4, 2]), r"x\[2, 1\]"),
        (lambda: model(ids, mask=np.ones((3, 4), bool)), r"x\[2, 1\]"),
        (lambda: model(list(ids)), r"x\[2\]\[1\]"),
        (lambda: model(fastrnn.pack(ids, [4, 4, 4])), r"x.data\[5\]"),
        (lambda: tagger(rng, batch_first=False)(ids.T), r"x\[1, 2\]"),
        (lambda: tagger(rng, mask_zero=True)(np.where(ids == 3, 0, ids)), r"x\[2, 1\]"),
    ):
        with pytest.raises(ValueError, match=place + " is " + message):
            call()
    assert_same_bits(out, poison((3, 4, 5)))
    for bad in (-1, 2**40, -(2**63)):
        ids[2, 1] = bad
        with pytest.raises(ValueError, match=rf"x\[2, 1\] is {bad}, but"):
            model(ids)
    big = np.full((1, 1), 2**64 - 1, np.uint64)
    with pytest.raises(ValueError, match=rf"x\[0, 0\] is {2**64 - 1}, but"):
        model(big)
    ids[2, 1] = 10**12
    assert model(ids, lengths=[4, 4, 1]).shape == (3, 4, 5)
    mask = np.ones((3, 4), bool)
    mask[2, 1] = False
    assert model(ids, mask=mask).shape == (3, 4, 5)


def test_wrong_arguments_are_named(rng):
    ids, x = np.zeros((2, 3), int), np.zeros((2, 3, 4), np.float32)
    words, vectors = tagger(rng), Sequential(linear(rng, 4, 5))
    pooled = Sequential(linear(rng, 4, 5), ops.Last())
    for call, error, message in (
        (lambda: words(x), TypeError, "x is of type float32, wanted integers"),
        (lambda: words(ids > 0), TypeError, "x is of type bool, wanted integers"),
        (lambda: words(ids[None]), ValueError, r"x has shape \(1, 2, 3\), wanted \(B, T\), or \(T,\)"),
        (lambda: words([ids]), ValueError, r"x\[0\] has shape \(2, 3\), wanted \(T,\)"),
        (lambda: words([ids[0], ids[0] * 1.0]), TypeError, r"x\[1\] is of type float64, wanted integers"),
        (lambda: words(fastrnn.pack(x, [1, 2])), TypeError, "x.data is of type float32"),
        (lambda: vectors(x[0, 0]), ValueError, r"x has shape \(4,\), wanted \(B, T, I\), or \(T, I\)"),
        (lambda: vectors(x[..., :3]), ValueError, "its last axis is 3 wide, wanted 4"),
        (lambda: vectors(x.astype("f8")), TypeError, "x is float64, wanted float32"),
        (lambda: vectors(x, casting="any"), ValueError, "casting is 'any'"),
        (lambda: vectors([x[0], x[0, :, :2]]), ValueError, r"x\[1\] .* 2 wide, wanted 4"),
        (lambda: vectors(x, lengths=[3, 4]), ValueError, r"lengths\[1\] is 4, but x has 3 steps"),
        (lambda: vectors(x, lengths=[3]), ValueError, r"lengths has shape \(1,\)"),
        (lambda: vectors(x, mask=np.ones((2, 3, 4), bool)), ValueError, r"mask has shape .*, wanted \(2, 3\)"),
        (lambda: vectors(x, mask=np.ones((2, 3))), TypeError, "mask is of type float64"),
        (lambda: vectors([x[0]], lengths=[3]), TypeError, "lengths is given, but x is a list"),
        (lambda: vectors(fastrnn.pack(x, [1, 2]), mask=[True]), TypeError, "mask is given, but x is a Packed"),
        (lambda: vectors(x, out=np.zeros((2, 3, 4), "f4")), ValueError, r"out has shape .*, wanted \(2, 3, 5\)"),
        (lambda: pooled(x, out=np.zeros((2, 3, 5), "f4")), ValueError, r"out has shape .*, wanted \(2, 5\)"),
        (lambda: vectors(x, out=np.zeros((2, 3, 5))), TypeError, "out is <f8"),
        (lambda: vectors.stream(-1), ValueError, "batch_size"),
    ):
        with pytest.raises(error, match=message):
            call()


def test_casting_of_vectors(rng):
    model = Sequential(linear(rng, 4, 5))
    x = rng.integers(-9, 9, (2, 3, 4))
    assert_same_bits(model(x.astype("i2")), model(x.astype("f4")))
    assert_same_bits(model(x.astype("f8"), casting="same_kind"), model(x.astype("f4")))
    assert_same_bits(model(x.tolist()), model(x.astype("f4")))


def test_out_of_a_model_that_pools_may_hold_anything_before(rng):
    model = Sequential(recurrent(rng, 3, 4), ops.Final())
    x = rng.standard_normal((4, 5, 3)).astype("f4")
    out = poison((4, model.output_size))
    mask = rng.random((4, 5)) < 0.5
    assert model(x, mask=mask, out=out) is out
    assert_same_bits(out, model(x, mask=mask))


def test_results_past_the_end_are_zero_after_a_convolution(rng):
    for _ in range(20):
        model = Sequential(conv1d(rng, 3, 4), linear(rng, 4, 2))
        rows = random_rows(rng, model.spec)
        y = model(pad(rows), lengths=LENGTHS, out=poison(model(pad(rows)).shape))
        for result, n in zip(y, LENGTHS, strict=True):
            assert not result[model.output_steps(n) :].any()


def test_strided_and_unaligned_inputs(rng):
    model = Sequential(linear(rng, 3, 4), recurrent(rng, 4, 5))
    x = rng.standard_normal((3, 4, 3)).astype("f4")
    wanted = model(x)
    assert_same_bits(model(np.asfortranarray(x)), wanted)
    assert_same_bits(model(np.repeat(x, 2, axis=1)[:, ::2]), wanted)
    assert_same_bits(model(x[::-1, :, ::-1][::-1, :, ::-1]), wanted)
    buffer = np.zeros(x.nbytes + 1, np.uint8)
    unaligned = buffer[1:].view("f4").reshape(x.shape)
    unaligned[...] = x
    assert_same_bits(model(unaligned), wanted)
