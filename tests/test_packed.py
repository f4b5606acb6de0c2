"""Packing and unpacking, and the checks of Packed."""

import copy
import pickle
from dataclasses import replace

import numpy as np
import pytest
from bits import assert_same_bits

import fastrnn
from fastrnn import Packed, pack, pack_sequence, pad_sequence, unpack, unpack_sequence

RAGGED = [[3], [0], [0, 0], [4, 4, 4], [1, 4, 2], [4, 0, 1, 0, 3], [2, 2, 0]]


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("dtype", ["f4", "f8", "i4", ">f4"])
@pytest.mark.parametrize("lengths", RAGGED, ids=str)
def test_round_trip(rng, lengths, dtype, batch_first):
    x = (100 * rng.standard_normal((len(lengths), 5, 3))).astype(dtype)
    given = x if batch_first else x.swapaxes(0, 1)
    packed = pack(given, lengths, batch_first)
    assert packed.data.shape == (sum(lengths), 3) and packed.data.dtype == x.dtype
    assert packed.lengths.tolist() == lengths
    found, found_lengths = unpack(packed, batch_first, total_length=5, padding_value=7)
    assert found_lengths.tolist() == lengths
    for row, length in enumerate(lengths):
        x[row, length:] = 7
    assert_same_bits(found, x if batch_first else x.swapaxes(0, 1))


def test_shortest_result_by_default(rng):
    x = rng.standard_normal((2, 9, 3))
    assert unpack(pack(x, [4, 2]))[0].shape == (2, 4, 3)
    assert unpack(pack(x, [0, 0]))[0].shape == (2, 0, 3)
    assert unpack(pack(x[:0], []))[0].shape == (0, 0, 3)


def test_the_order_of_the_data():
    x = np.array([[10, 11, 12], [20, 21, 22], [30, 31, 32]], float)[..., None]
    packed = pack(x, [1, 3, 2])
    assert packed.data.ravel().tolist() == [20, 30, 10, 21, 31, 22]
    assert packed.batch_sizes.tolist() == [3, 2, 1]
    assert packed.sorted_indices.tolist() == [1, 2, 0]
    assert packed.unsorted_indices.tolist() == [2, 0, 1]


def test_padding_is_not_packed():
    x = np.full((2, 4, 1), np.nan)
    x[0, :2] = x[1, :1] = 1
    assert np.isfinite(pack(x, [2, 1]).data).all()


def test_rows_in_order_need_no_indices():
    """As in PyTorch: indices are None if the rows were in order, and the inverse can be left out."""
    found = Packed(np.zeros((4, 2)), [3, 1])
    assert found.sorted_indices.tolist() == found.unsorted_indices.tolist() == [0, 1, 2]
    assert found.lengths.tolist() == [2, 1, 1]
    assert Packed(np.zeros((4, 2)), [3, 1], None, [0, 1, 2, 3]).lengths.tolist() == [2, 1, 1, 0]
    assert Packed(np.zeros((4, 2)), [3, 1], [2, 0, 1]).unsorted_indices.tolist() == [1, 2, 0]
    assert Packed(np.zeros((0, 2)), []).lengths.tolist() == []
    for bad in ([0, 0, 1], [0, 9, 1], [-1, 0, 1]):
        with pytest.raises(ValueError, match="sorted_indices is not a permutation"):
            Packed(np.zeros((4, 2)), [3, 1], bad)


def test_enforce_sorted(rng):
    x = rng.standard_normal((4, 5, 3))
    given = pack(x, [5, 2, 2, 0], enforce_sorted=True)
    assert given.sorted_indices.tolist() == [0, 1, 2, 3] and given.lengths.tolist() == [5, 2, 2, 0]
    assert_same_bits(given.data, pack(x, [5, 2, 2, 0]).data)
    with pytest.raises(ValueError, match=r"lengths\[2\] is 3 after 2.*enforce_sorted=False"):
        pack(x, [5, 2, 3, 0], enforce_sorted=True)


@pytest.mark.parametrize("dtype", ["?", "i1", "u1", "i2", "u2", "i4", "i8", "u8", "f2", "f4", "f8", "c8"])
@pytest.mark.parametrize("padding_value", [0.0, 1, True, np.float32(0), np.array(1)], ids=repr)
def test_padding_fits_every_type(rng, dtype, padding_value):
    """The default padding is 0.0 whatever the data's type is."""
    x = rng.integers(0, 2, (3, 4, 2)).astype(dtype)
    found, _ = unpack(pack(x, [4, 1, 2]), padding_value=padding_value)
    assert found.dtype == x.dtype and (found[1, 1:] == padding_value).all() and (found[0] == x[0]).all()
    assert not unpack(pack(x, [4, 1, 2]))[0][1, 1:].any()


@pytest.mark.parametrize(
    ("dtype", "bad"),
    [
        ("?", 2),
        ("?", 0.5),
        ("u1", -1),
        ("u1", 256.0),
        ("i1", 128),
        ("i8", 0.5),
        ("i8", np.nan),
        ("i8", np.inf),
        ("i8", 2.0**63),
        ("u8", 2.0**64),
        ("f4", 1e300),
        ("f2", 1e6),
        ("f2", 2**70),
        ("f8", 10**400),
    ],
)
def test_padding_that_does_not_fit(dtype, bad):
    with pytest.raises(ValueError, match=r"padding_value is .*wanted a number that fits"):
        unpack(pack(np.zeros((2, 4, 3), dtype), [1, 3]), padding_value=bad)
    with pytest.raises(ValueError, match=r"padding_value is .*wanted a number that fits"):
        pad_sequence([np.zeros(2, dtype), np.zeros(1, dtype)], padding_value=bad)


def test_a_total_length_beyond_memory_is_named():
    with pytest.raises(ValueError, match=rf"total_length is {2**62}, wanted fewer steps"):
        unpack(pack(np.zeros((2, 4, 3), "f4"), [1, 3]), total_length=2**62)


def ragged_sequences(rng, lengths, trailing=(3,), dtype="f4"):
    return [(100 * rng.standard_normal((length, *trailing))).astype(dtype) for length in lengths]


@pytest.mark.parametrize("lengths", RAGGED, ids=str)
def test_sequences_round_trip(rng, lengths):
    """Lengths with ties, ones and zeros in any order."""
    sequences = ragged_sequences(rng, lengths)
    packed = pack_sequence(sequences, enforce_sorted=False)
    padded = pad_sequence(sequences, batch_first=True)
    assert_same_bits(pack(padded, lengths).data, packed.data)
    assert packed.lengths.tolist() == lengths
    found = unpack_sequence(packed)
    assert len(found) == len(sequences)
    for back, sequence in zip(found, sequences, strict=True):
        assert_same_bits(back, sequence)
    assert unpack_sequence(pack(np.zeros((0, 4, 3)), [])) == []


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: pad_sequence(5), TypeError, "sequences is int, wanted"),
        (lambda: pad_sequence([]), ValueError, "sequences is empty"),
        (lambda: pack_sequence([]), ValueError, "sequences is empty"),
        (lambda: pad_sequence([np.zeros((2, 3)), np.zeros((2, 4))]), ValueError, r"sequences\[1\] has shape \(2, 4\)"),
        (lambda: pad_sequence([np.zeros(2), np.float64(0)]), ValueError, r"sequences\[1\] has shape \(\)"),
        (lambda: pad_sequence([np.zeros(2), np.zeros(2, "f4")]), TypeError, r"sequences\[1\] is float32"),
        (lambda: pad_sequence([np.zeros(2)], padding_side="top"), ValueError, "padding_side is 'top'"),
        (lambda: pad_sequence([np.zeros(2)], padding_side=None), ValueError, "padding_side is None"),
        (lambda: pack_sequence([np.zeros(1), np.zeros(2)]), ValueError, r"sequences\[1\] has 2 steps after 1"),
        (lambda: unpack_sequence([np.zeros(2)]), TypeError, "packed_sequences is list"),
    ],
    ids=range(10),
)
def test_sequences_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_equals_torch(rng):
    torch = pytest.importorskip("torch")
    from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

    for _ in range(50):
        B, T = rng.integers(1, 9, 2)
        lengths = rng.integers(1, T + 1, B)
        x = rng.standard_normal((B, T, 3))
        theirs = pack_padded_sequence(torch.from_numpy(x), torch.from_numpy(lengths), True, enforce_sorted=False)
        ours = pack(x, lengths)
        assert_same_bits(ours.data, theirs.data.numpy())
        assert_same_bits(ours.batch_sizes, theirs.batch_sizes.numpy())
        padded, padded_lengths = pad_packed_sequence(theirs, True, padding_value=3.5)
        assert_same_bits(unpack(ours, padding_value=3.5), (padded.numpy(), padded_lengths.numpy()))
        order = theirs.sorted_indices.numpy(), theirs.unsorted_indices.numpy()
        adopted = Packed(theirs.data.numpy(), theirs.batch_sizes.numpy(), *order)
        assert_same_bits(unpack(adopted, padding_value=3.5)[0], padded.numpy())


GOOD = {
    "data": np.zeros((4, 2), np.float32),
    "batch_sizes": np.array([3, 1]),
    "sorted_indices": np.array([2, 0, 1, 3]),
    "unsorted_indices": np.array([1, 2, 0, 3]),
}


def test_parts_that_fit():
    assert Packed(**GOOD).lengths.tolist() == [1, 1, 2, 0]
    assert Packed(**{name: part.tolist() for name, part in GOOD.items()}).lengths.tolist() == [1, 1, 2, 0]


@pytest.mark.parametrize(
    ("part", "bad", "error", "message"),
    [
        ("data", np.float32(4), ValueError, "data has shape"),
        ("data", np.zeros(3), ValueError, "data has 3 steps"),
        ("data", np.zeros((3, 2)), ValueError, "data has 3 steps, but batch_sizes adds up to 4"),
        ("batch_sizes", [1, 3], ValueError, "batch_sizes"),
        ("batch_sizes", [3, 1, 0], ValueError, "batch_sizes"),
        ("batch_sizes", [4, -2, 2], ValueError, "batch_sizes"),
        ("batch_sizes", [5, -1], ValueError, "batch_sizes"),
        ("batch_sizes", [5], ValueError, "batch_sizes"),
        ("batch_sizes", [[3, 1]], TypeError, "batch_sizes is"),
        ("batch_sizes", [3.0, 1.0], TypeError, "batch_sizes is float64"),
        ("batch_sizes", np.array([2**63, 1], np.uint64), ValueError, "batch_sizes"),
        ("sorted_indices", [0, 0, 1, 3], ValueError, "sorted_indices"),
        ("sorted_indices", [1, 2, 3, 4], ValueError, "sorted_indices"),
        ("sorted_indices", [-1, 0, 1, 2], ValueError, "sorted_indices"),
        ("sorted_indices", None, ValueError, "unsorted_indices is not the inverse"),
        ("sorted_indices", 3, TypeError, "sorted_indices"),
        ("unsorted_indices", [0, 1, 2, 3], ValueError, "unsorted_indices"),
        ("unsorted_indices", [1, 2, 0], ValueError, "unsorted_indices"),
        ("unsorted_indices", [1, 2, 0, 4], ValueError, "unsorted_indices"),
        ("unsorted_indices", [1, 2, 0, -1], ValueError, "unsorted_indices"),
    ],
    ids=str,
)
def test_parts_that_do_not_fit(part, bad, error, message):
    with pytest.raises(error, match=message):
        Packed(**{**GOOD, part: bad})


def test_pack_refuses():
    x = np.zeros((2, 4, 3))
    for bad in (x[0, 0], np.float64(0)):
        with pytest.raises(ValueError, match="x has shape"):
            pack(bad, [1, 2])
    for lengths, error in (([1, 5], ValueError), ([1, -1], ValueError), ([1], ValueError), ([1.0, 2.0], TypeError)):
        with pytest.raises(error, match="lengths"):
            pack(x, lengths)


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("total_length", 2),
        ("total_length", -1),
        ("total_length", 3.5),
        ("total_length", "9"),
        ("padding_value", "x"),
        ("padding_value", [0.0]),
        ("padding_value", 1j),
    ],
)
def test_unpack_refuses(name, bad):
    packed = pack(np.zeros((2, 4, 3)), [1, 3])
    with pytest.raises((TypeError, ValueError), match=name):
        unpack(packed, **{name: bad})


@pytest.mark.parametrize("bad", [None, "text", np.zeros((2, 3)), (1, 2)])
def test_unpack_wants_packed(bad):
    with pytest.raises(TypeError, match="packed"):
        unpack(bad)


def test_immutable():
    packed = pack(np.zeros((2, 4, 3)), [1, 3])
    with pytest.raises(AttributeError):
        packed.data = None
    assert replace(packed, data=packed.data + 1).data.all()


@pytest.mark.parametrize(("name", "value"), [("lengths", [1, 2]), ("out", np.zeros((2, 2, 3), np.float32))])
def test_packed_and_lists_bring_their_own(name, value):
    weights = {"weight_ih_l0": np.eye(3, dtype="f4"), "weight_hh_l0": np.eye(3, dtype="f4")}
    layer = fastrnn.RNN.from_state_dict(weights, nonlinearity="tanh")
    x = np.zeros((2, 2, 3), np.float32)
    for form in (pack(x, [1, 2]), [x[0], x[1]]):
        with pytest.raises(TypeError, match=f"{name} is given"):
            layer(form, **{name: value})


def test_the_order_cannot_be_changed_afterwards():
    """The engine computes addresses from these arrays, so they are read-only copies."""
    indices = np.array([0, 1])
    packed = fastrnn.Packed(np.zeros((4, 3), np.float32), np.array([2, 2]), indices, indices)
    indices[0] = 1 << 40
    assert packed.sorted_indices.tolist() == [0, 1]
    for name in ("batch_sizes", "sorted_indices", "unsorted_indices"):
        with pytest.raises(ValueError, match="read-only"):
            getattr(packed, name)[0] = 1
        with pytest.raises(ValueError):
            getattr(packed, name).setflags(write=True)


def test_a_packed_has_a_mask_of_its_own():
    weights = {"weight_ih_l0": np.eye(3, dtype="f4"), "weight_hh_l0": np.eye(3, dtype="f4")}
    layer = fastrnn.RNN.from_state_dict(weights, nonlinearity="tanh")
    x = np.zeros((2, 2, 3), np.float32)
    for form, name in ((pack(x, [1, 2]), "Packed"), ([x[0], x[1]], "list")):
        with pytest.raises(TypeError, match=f"mask is given, but x is a {name}: wanted None"):
            layer(form, mask=np.ones((2, 2), bool))


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda packed: pickle.loads(pickle.dumps(packed))])
def test_copies_cannot_be_changed_either(rng, copied):
    packed = pack(rng.standard_normal((4, 5, 3)), [3, 0, 5, 3])
    other = copied(packed)
    for name in ("data", "batch_sizes", "sorted_indices", "unsorted_indices"):
        assert_same_bits(getattr(other, name), getattr(packed, name))
    for name in ("batch_sizes", "sorted_indices", "unsorted_indices"):
        with pytest.raises(ValueError, match="read-only"):
            getattr(other, name)[0] = 1 << 40


def test_a_forged_pickle_is_refused():
    forged = pickle.dumps(Packed(**GOOD)).replace(np.int64(2).tobytes(), np.int64(1 << 40).tobytes(), 1)
    with pytest.raises(ValueError, match="sorted_indices"):
        pickle.loads(forged)
