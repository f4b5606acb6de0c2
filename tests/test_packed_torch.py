"""Packed sequences compared with PyTorch's: the functions of torch.nn.utils.rnn, and PackedSequence through a layer.

The cases follow the subjects of PyTorch's own test/nn/test_packed_sequence.py: types, orders, trailing dimensions,
total_length, paddings and refusals.
"""

import subprocess
import sys

import numpy as np
import pytest
from bits import MODELS, assert_same_bits
from cases import LAYERS, random_batch, random_spec

import fastrnn
from fastrnn import Packed, pack, pack_sequence, pad_sequence, unpack, unpack_sequence

torch = pytest.importorskip("torch")
import live_torch  # noqa: E402
from torch.nn.utils import rnn as torch_rnn  # noqa: E402

#: No zeros: PyTorch refuses them.
LENGTHS = {
    "ties-and-ones": [3, 1, 7, 1, 3, 7, 5],
    "descending": [7, 7, 3, 1, 1],
    "ascending": [1, 2, 2, 6],
    "one-row": [4],
    "all-one": [1, 1, 1],
}
ORDERED = {name: sorted(lengths, reverse=True) for name, lengths in LENGTHS.items()}
TYPES = ["float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "bool"]
TRAILING = [(), (3,), (2, 3), (2, 1, 2)]


def draw(rng, lengths, trailing=(3,), dtype="float32"):
    low, high = (0, 2) if dtype == "bool" else (0, 256) if dtype == "uint8" else (-128, 128)
    return [rng.integers(low, high, (length, *trailing)).astype(dtype) for length in lengths]


def tensors(arrays):
    return [torch.from_numpy(array) for array in arrays]


def assert_equals_packed(ours, theirs):
    """PyTorch has no indices where it did not sort."""
    order = np.arange(len(ours.sorted_indices))
    for name in ("data", "batch_sizes", "sorted_indices", "unsorted_indices"):
        wanted = getattr(theirs, name)
        assert_same_bits(getattr(ours, name), order if wanted is None else wanted.numpy())


@pytest.mark.parametrize("trailing", TRAILING, ids=str)
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_shapes(rng, lengths, trailing):
    """Every function on sequences of any number of trailing dimensions, both orders of the axes."""
    arrays = draw(rng, lengths, trailing)
    theirs = torch_rnn.pack_sequence(tensors(arrays), enforce_sorted=False)
    ours = pack_sequence(arrays, enforce_sorted=False)
    assert_equals_packed(ours, theirs)
    for found, wanted in zip(unpack_sequence(ours), torch_rnn.unpack_sequence(theirs), strict=True):
        assert_same_bits(found, wanted.numpy())
    for first in (True, False):
        padded = torch_rnn.pad_sequence(tensors(arrays), first)
        assert_same_bits(pad_sequence(arrays, first), padded.numpy())
        wanted = torch_rnn.pack_padded_sequence(padded, torch.tensor(lengths), first, False)
        assert_equals_packed(pack(padded, lengths, first, False), wanted)
        for total in (None, 7, 9):
            back, sizes = torch_rnn.pad_packed_sequence(wanted, first, 5.0, total)
            found, found_sizes = unpack(ours, first, 5.0, total)
            assert_same_bits(np.ascontiguousarray(found), back.contiguous().numpy())
            assert_same_bits(found_sizes, sizes.numpy())


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("side", ["right", "left"])
def test_types_and_sides(rng, dtype, side):
    """The default padding, and a one, in every type."""
    lengths = LENGTHS["ties-and-ones"]
    arrays = draw(rng, lengths, (2,), dtype)
    for first, options in ((False, {}), (True, {"padding_value": 1})):
        wanted = torch_rnn.pad_sequence(tensors(arrays), first, padding_side=side, **options)
        found = pad_sequence(arrays, first, padding_side=side, **options)
        assert_same_bits(np.ascontiguousarray(found), wanted.contiguous().numpy())
        packed = torch_rnn.pack_sequence(tensors(arrays), False)
        wanted, _ = torch_rnn.pad_packed_sequence(packed, first, **options)
        found, _ = unpack(pack_sequence(arrays, False), first, **options)
        assert_same_bits(np.ascontiguousarray(found), wanted.contiguous().numpy())


def test_names_and_defaults_are_torchs():
    import inspect

    for name in ("pad_sequence", "pack_sequence", "unpack_sequence"):
        ours, theirs = (inspect.signature(getattr(module, name)).parameters for module in (fastrnn, torch_rnn))
        assert [(p.name, p.default) for p in ours.values()] == [(p.name, p.default) for p in theirs.values()]
    for ours, theirs, other in (
        (pack, torch_rnn.pack_padded_sequence, {"batch_first": True, "enforce_sorted": False}),
        (unpack, torch_rnn.pad_packed_sequence, {"batch_first": True}),
    ):
        found, wanted = inspect.signature(ours).parameters, inspect.signature(theirs).parameters
        assert list(found)[1:] == list(wanted)[1:]  # the first: x for input, packed for sequence
        for parameter in list(found.values())[1:]:
            default = wanted[parameter.name].default
            assert parameter.default == other.get(parameter.name, default), parameter.name


@pytest.mark.parametrize("lengths", ORDERED.values(), ids=ORDERED)
def test_sorted_input(rng, lengths):
    """PyTorch's default, enforce_sorted=True, keeps no indices; Packed accepts its result."""
    arrays = draw(rng, lengths)
    theirs = torch_rnn.pack_sequence(tensors(arrays))
    assert theirs.sorted_indices is None
    assert_equals_packed(pack_sequence(arrays), theirs)
    assert_equals_packed(pack(pad_sequence(arrays, True), lengths, enforce_sorted=True), theirs)
    assert_equals_packed(Packed(*theirs), theirs)
    padded, sizes = torch_rnn.pad_packed_sequence(theirs, True)
    assert_same_bits(unpack(Packed(*theirs)), (padded.numpy(), sizes.numpy()))
    assert_same_bits(unpack(theirs), (padded.numpy(), sizes.numpy()))
    for found, array in zip(unpack_sequence(theirs), arrays, strict=True):
        assert_same_bits(found, array)


def test_one_tensor_is_its_rows(rng):
    """pad_sequence takes one array as the sequences along its first axis."""
    x = rng.standard_normal((3, 4, 2))
    assert_same_bits(pad_sequence(x), np.ascontiguousarray(torch_rnn.pad_sequence(torch.from_numpy(x)).numpy()))
    assert_same_bits(pad_sequence(iter(x), True), x)


A, B = np.ones((5, 2), np.float32), np.ones((3, 2), np.float32)
TA, TB = torch.ones(5, 2), torch.ones(3, 2)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (lambda: pack_sequence([B, A]), lambda: torch_rnn.pack_sequence([TB, TA])),
        (
            lambda: pack(pad_sequence([B, A]), [3, 5], False, enforce_sorted=True),
            lambda: torch_rnn.pack_padded_sequence(torch_rnn.pad_sequence([TB, TA]), [3, 5]),
        ),
        (lambda: pack(A[None], [5, 5]), lambda: torch_rnn.pack_padded_sequence(TA[None], [5, 5], True, False)),
        (lambda: pack(A[None], [-1]), lambda: torch_rnn.pack_padded_sequence(TA[None], [-1], True, False)),
        (lambda: pad_sequence(5), lambda: torch_rnn.pad_sequence(5)),
        (lambda: pad_sequence([]), lambda: torch_rnn.pad_sequence([])),
        (lambda: pack_sequence([]), lambda: torch_rnn.pack_sequence([])),
        (lambda: pad_sequence([A[:, :1], B]), lambda: torch_rnn.pad_sequence([TA[:, :1], TB])),
        (
            lambda: pad_sequence([A, B], padding_side="middle"),
            lambda: torch_rnn.pad_sequence([TA, TB], padding_side="middle"),
        ),
        *(
            (
                lambda total=total: unpack(pack_sequence([A, B]), total_length=total),
                lambda total=total: torch_rnn.pad_packed_sequence(torch_rnn.pack_sequence([TA, TB]), True, 0.0, total),
            )
            for total in (-1, 0, 4)
        ),
    ],
    ids=range(12),
)
def test_what_torch_refuses(ours, theirs):
    """ValueError where PyTorch raises it; TypeError or ValueError where PyTorch raises RuntimeError."""
    with pytest.raises(Exception) as wanted:
        theirs()
    with pytest.raises(ValueError if wanted.type is ValueError else (TypeError, ValueError)):
        ours()


@pytest.fixture(params=MODELS)
def spec(request, rng):
    kind, options = MODELS[request.param]
    return random_spec(rng, kind, 3, 5, 2, **options)


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize("enforce_sorted", [True, False])
def test_layer_takes_torchs(rng, spec, lengths, enforce_sorted):
    """The result is a PackedSequence in the same order; the state is NumPy arrays."""
    layer = LAYERS[spec.kind](spec)
    lengths = sorted(lengths, reverse=True) if enforce_sorted else lengths
    batch = random_batch(rng, spec, tuple(lengths))
    x = torch_rnn.pack_padded_sequence(torch.from_numpy(batch.x), lengths, True, enforce_sorted)
    state = batch.state
    as_tensors = tuple(map(torch.from_numpy, state)) if spec.kind == "lstm" else torch.from_numpy(state)
    wanted, wanted_last = layer(batch.x, state, lengths=lengths)
    for given in (state, as_tensors):
        y, last = layer(x, given)
        assert type(y) is torch_rnn.PackedSequence and y.data.dtype == torch.float32
        for name in ("batch_sizes", "sorted_indices", "unsorted_indices"):
            assert getattr(y, name) is getattr(x, name)
        assert_same_bits(torch_rnn.pad_packed_sequence(y, True)[0].numpy(), wanted)
        assert_same_bits(last, wanted_last)
    y.data.zero_()  # new memory, and writeable
    assert_same_bits(torch_rnn.pad_packed_sequence(layer(x, state)[0], True)[0].numpy(), wanted)


@pytest.mark.parametrize("enforce_sorted", [True, False])
@pytest.mark.parametrize("kind", LAYERS)
def test_layer_agrees_with_torchs(rng, kind, enforce_sorted):
    """The same PackedSequence through PyTorch's module, bidirectional and stacked, from a non-zero state."""
    theirs = live_torch.module(kind, 3, 5, 2, bidirectional=True)
    layer = LAYERS[kind].from_torch(theirs)
    lengths = (ORDERED if enforce_sorted else LENGTHS)["ties-and-ones"]
    x = torch_rnn.pack_sequence(tensors(rng.standard_normal((n, 3)).astype("f4") for n in lengths), enforce_sorted)
    parts = tensors(rng.uniform(-1, 1, (4, len(lengths), 5)).astype("f4") for _ in range(2))
    state = tuple(parts) if kind == "lstm" else parts[0]
    with torch.no_grad():
        wanted, wanted_last = theirs(x, state)
    y, last = layer(x, state)
    np.testing.assert_allclose(y.data.numpy(), wanted.data.numpy(), rtol=0, atol=2e-6)
    for found, part in zip(*((last, wanted_last) if kind == "lstm" else ([last], [wanted_last])), strict=True):
        np.testing.assert_allclose(found, part.numpy(), rtol=0, atol=2e-6)


def test_rows_that_torch_has_none_of(rng):
    """PyTorch refuses sequences without steps; fastrnn accepts them."""
    arrays = draw(rng, [2, 0, 3, 0])
    with pytest.raises(RuntimeError, match="greater than 0"):
        torch_rnn.pack_sequence(tensors(arrays), enforce_sorted=False)
    packed = pack_sequence(arrays, enforce_sorted=False)
    assert packed.lengths.tolist() == [2, 0, 3, 0] and packed.batch_sizes.tolist() == [2, 2, 1]


def test_layer_refuses_torchs_by_name():
    weights = {"weight_ih_l0": np.eye(2, dtype="f4"), "weight_hh_l0": np.eye(2, dtype="f4")}
    layer = fastrnn.RNN.from_state_dict(weights, nonlinearity="tanh")
    x = torch_rnn.pack_sequence([TA, TB])
    for name, value in (("lengths", [5, 3]), ("mask", np.ones((2, 5), bool)), ("out", np.zeros((2, 5, 2), "f4"))):
        with pytest.raises(TypeError, match=f"{name} is given, but x is a PackedSequence: wanted None"):
            layer(x, **{name: value})
    with pytest.raises(ValueError, match=r"x.data has shape \(8, 1\).*wanted 2"):
        layer(torch_rnn.pack_sequence([TA[:, :1], TB[:, :1]]))
    with pytest.raises(ValueError, match=r"x.data has shape \(8,\), wanted"):
        layer(torch_rnn.pack_sequence([TA[:, 0], TB[:, 0]]))
    with pytest.raises(ValueError, match=r"state has shape \(1, 3, 2\), wanted \(1, 2, 2\)"):
        layer(x, np.zeros((1, 3, 2), "f4"))
    with pytest.raises(TypeError, match=r"x.data is Tensor, wanted an array: .*grad"):
        layer(torch_rnn.pack_sequence([TA.clone().requires_grad_(), TB]))
    with pytest.raises(ValueError, match="batch_sizes adds up to 7"):
        layer(torch_rnn.PackedSequence(x.data, torch.tensor([2, 2, 2, 1])))
    with pytest.raises(ValueError, match="not a permutation"):
        layer(torch_rnn.PackedSequence(x.data, x.batch_sizes, torch.tensor([0, 0]), torch.tensor([0, 1])))
    for call in (layer.unroll(5), layer.stream(2).run, layer.stream(2).step):
        with pytest.raises(TypeError, match="x is PackedSequence, wanted"):
            call(x)


def test_torch_is_not_imported():
    """PyTorch is not imported to find out whether x is a PackedSequence."""
    code = (
        "import sys, numpy as np, fastrnn\n"
        "w = {'weight_ih_l0': np.eye(2, dtype='f4'), 'weight_hh_l0': np.eye(2, dtype='f4')}\n"
        "fastrnn.RNN.from_state_dict(w, nonlinearity='tanh')(tuple(np.zeros((1, 3, 2), 'f4')))\n"
        "fastrnn.unpack(fastrnn.pack_sequence([np.ones(2)]))\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
