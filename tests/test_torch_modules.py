"""PyTorch's own inputs for its recurrent modules, through accelerate.

They ship with PyTorch, in torch.testing._internal.common_modules, and are those of its own test_modules.py: constructor
arguments, inputs of ``forward``, errors, and a reference, which is the module itself on a batch of one.
"""

import copy
import itertools
import pickle
from unittest import mock

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("expecttest")
from torch.nn.utils.rnn import PackedSequence  # noqa: E402
from torch.utils import _pytree as pytree  # noqa: E402

with mock.patch("torch.backends.disable_global_flags"):  # after it, no other test of this process could set a flag
    from torch.testing._internal import common_modules, common_utils

from fastrnn.torch import accelerate  # noqa: E402

#: How many inputs, packed ones included, and how many errors PyTorch has for each module.
COUNTS = {"RNN": (64, 14), "GRU": (32, 14), "LSTM": (32, 14), "RNNCell": (3, 6), "GRUCell": (2, 6), "LSTMCell": (2, 4)}
INFOS = {info.module_cls.__name__: info for info in common_modules.module_db if info.module_cls.__name__ in COUNTS}
DTYPES = [torch.float32, torch.float64]


def draw(function, info, dtype=torch.float32):
    """The inputs that one of PyTorch's functions makes; those that know packed ones make them as well."""
    torch.manual_seed(7)
    options = {"device": "cpu", "dtype": dtype, "requires_grad": False, "training": False}
    return list(function(info, with_packed_sequence=True, **options))


INPUTS = [
    pytest.param(info, index, dtype, id=f"{name}-{index}-{str(dtype).removeprefix('torch.')}")
    for (name, info), dtype in itertools.product(INFOS.items(), DTYPES)
    for index in range(len(draw(info.module_inputs_func, info)))
]
ERRORS = [
    pytest.param(info, error, id=f"{name}-{index}")
    for name, info in INFOS.items()
    for index, error in enumerate(draw(info.module_error_inputs_func, info))
]


def test_none_is_missing():
    assert set(INFOS) == set(COUNTS)
    for name, info in INFOS.items():
        inputs, errors = draw(info.module_inputs_func, info), draw(info.module_error_inputs_func, info)
        assert (len(inputs), len(errors)) == COUNTS[name], name
    packed = [case for info in INFOS.values() for case in draw(info.module_inputs_func, info) if is_packed(case)]
    assert len(packed) == 32 + 16 and len(INPUTS) == 2 * sum(inputs for inputs, _ in COUNTS.values())


def is_packed(case):
    return isinstance(case.forward_input.args[0], PackedSequence)


def build(info, case, dtype=torch.float32):
    torch.manual_seed(11)
    arguments = case.constructor_input
    return info.module_cls(*arguments.args, **{"dtype": dtype} | arguments.kwargs).eval()


def assert_close(found, wanted):
    """Equal within 1e-5: tensors, and packed sequences and tuples of them, which must be alike."""
    if isinstance(wanted, torch.Tensor):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
        assert not found.requires_grad
    elif isinstance(wanted, tuple):
        assert type(found) is type(wanted) and len(found) == len(wanted)
        for part, expected in zip(found, wanted, strict=True):
            assert_close(part, expected)
    else:
        assert wanted is None and found is None


@pytest.mark.parametrize(("info", "index", "dtype"), INPUTS)
def test_inputs(info, index, dtype):
    """The plain module's outputs and PyTorch's reference; also of a copy, with strided tensors, and from a pickle."""
    case = draw(info.module_inputs_func, info, dtype)[index]
    plain, arguments = build(info, case, dtype), case.forward_input
    fast = accelerate(plain)
    assert type(fast) is not type(plain)
    with torch.no_grad():
        wanted = plain(*arguments.args, **arguments.kwargs)
        assert_close(fast(*arguments.args, **arguments.kwargs), wanted)
        if not is_packed(case):
            strided = pytree.tree_map(common_utils.noncontiguous_like, arguments.args)
            assert_close(fast(*strided), wanted)
            reference = case.reference_fn(fast, *arguments.args, **arguments.kwargs)
            assert_close(tuple(reference) if isinstance(reference, list) else reference, wanted)
        for again in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))):
            assert_close(again(*arguments.args, **arguments.kwargs), wanted)


@pytest.mark.parametrize(("info", "error"), ERRORS)
def test_errors(info, error):
    """The plain module's exception; of a constructor that raises, there is nothing to accelerate."""
    case = error.module_error_input
    with torch.no_grad(), pytest.raises(error.error_type, match=error.error_regex) as plain:
        build(info, case)(*case.forward_input.args)
    with torch.no_grad(), pytest.raises(error.error_type) as found:
        accelerate(build(info, case))(*case.forward_input.args)
    assert type(found.value) is type(plain.value)
