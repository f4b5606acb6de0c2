"""Accelerated modules whose weights change: the next call computes with the new ones."""

import copy

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.nn.utils import parameters_to_vector, vector_to_parameters  # noqa: E402

from fastrnn.torch import accelerate  # noqa: E402

X = torch.linspace(-1, 1, 12).reshape(2, 2, 3)


def assert_close(ours, theirs, tolerance=1e-5):
    for found, wanted in zip(tensors_of(ours), tensors_of(theirs), strict=True):
        assert found.dtype == wanted.dtype
        torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance)


def tensors_of(result):
    if isinstance(result, torch.Tensor):
        return [result]
    return [tensor for part in result for tensor in tensors_of(part)]


@torch.no_grad()
def call(module):
    """Twice, from the same state."""
    dtype = next(module.parameters()).dtype
    if isinstance(module, nn.RNNCellBase):
        x, state = X[0].to(dtype), torch.ones(2, 4, dtype=dtype)
        state = (state, state) if isinstance(module, nn.LSTMCell) else state
        return module(x, state), module(x, state)
    return module(X.to(dtype))


def load(module, **options):
    module.load_state_dict({name: torch.randn_like(weight) for name, weight in module.state_dict().items()}, **options)


def take_steps(module, optimizer, **options):
    for weight in module.parameters():
        weight.grad = torch.randn_like(weight)
    optimizer(module.parameters(), lr=0.1, **options).step()


def replace_data_twice(module):
    """The second memory may be at the address of the first."""
    weight = module.get_parameter(WEIGHT_HH[isinstance(module, nn.RNNCellBase)])
    weight.data = torch.zeros_like(weight)
    weight.data = torch.full_like(weight, 0.25)


def set_parameter(module):
    name = WEIGHT_HH[isinstance(module, nn.RNNCellBase)]
    setattr(module, name, nn.Parameter(module.get_parameter(name).detach() * 2))


def write_through_another_parameter(module):
    """A new parameter of the same memory has a counter of its own."""
    name = WEIGHT_HH[isinstance(module, nn.RNNCellBase)]
    setattr(module, name, nn.Parameter(module.get_parameter(name).data))
    module.get_parameter(name).mul_(2)


def swap_tensors(module):
    name = WEIGHT_HH[isinstance(module, nn.RNNCellBase)]
    getattr(module, "_flat_weight_refs", []).clear()  # PyTorch's own weak references; it clears them, too
    torch.utils.swap_tensors(module.get_parameter(name), nn.Parameter(module.get_parameter(name).detach() * 2))


def write_in_inference_mode(module):
    with torch.inference_mode():
        next(module.parameters()).mul_(3)


def double_by_vector(module):
    vector_to_parameters(parameters_to_vector(module.parameters()) * 2, module.parameters())


WEIGHT_HH = ("weight_hh_l0", "weight_hh")  # of layers and of cells

#: What changes a module's weights, and whether it changes their values.
CHANGES = {
    "load_state_dict": (load, True),
    "load_state_dict(assign=True)": (lambda module: load(module, assign=True), True),
    "mul_": (lambda module: [weight.mul_(2) for weight in module.parameters()], True),
    "an element": (lambda module: next(module.parameters())[0].__setitem__(0, 9), True),
    "a view": (lambda module: next(module.parameters()).detach()[0].fill_(0.5), True),
    "inference_mode": (write_in_inference_mode, True),
    "SGD": (lambda module: take_steps(module, torch.optim.SGD), True),
    "Adam, foreach": (lambda module: take_steps(module, torch.optim.Adam, foreach=True), True),
    "vector_to_parameters": (double_by_vector, True),
    "setattr": (set_parameter, True),
    "another parameter": (write_through_another_parameter, True),
    "swap_tensors": (swap_tensors, True),
    "data": (replace_data_twice, True),
    "reset_parameters": (lambda module: module.reset_parameters(), True),
    "double": (lambda module: module.double(), False),
    "half and back": (lambda module: module.half().float(), False),
    "share_memory": (lambda module: module.share_memory(), False),
}


@pytest.mark.parametrize(("change", "changes_values"), CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.LSTMCell, nn.RNNCell])
@torch.no_grad()
def test_changes(kind, change, changes_values):
    torch.manual_seed(0)
    fast = accelerate(kind(3, 4))
    before = call(fast)
    torch.manual_seed(3)
    change(fast)
    plain = kind(3, 4, dtype=next(fast.parameters()).dtype)
    plain.load_state_dict(fast.state_dict())
    after = tensors_of(call(fast))
    assert_close(after, call(plain))
    if changes_values:
        assert not any(map(torch.allclose, after, tensors_of(before)))


def test_unchanged_weights_are_not_prepared_again():
    for fast in (accelerate(nn.GRU(3, 4)), accelerate(nn.GRUCell(3, 4))):
        call(fast)
        prepared = fast._prepared
        fast.float().train().eval().zero_grad()
        next(fast.parameters()).grad = torch.ones(12, 3)
        call(fast)
        assert fast._prepared is prepared


def test_equal_weights_are_not_prepared_again():
    """Other memory with the same values: of a state dict, of modules that were moved to shared memory."""
    fast = accelerate(nn.GRU(3, 4))
    call(fast)
    layer = fast._prepared.layer
    fast.load_state_dict(fast.state_dict(), assign=True)
    for weight in fast.parameters():
        weight.data = weight.data.clone()
    call(fast)
    prepared = fast._prepared
    assert prepared.layer is layer
    call(fast)
    assert fast._prepared is prepared


def test_strides():
    """The same memory, read in another order."""
    fast = accelerate(nn.RNN(3, 4))
    before = call(fast)
    fast.weight_hh_l0.data = fast.weight_hh_l0.data.T
    plain = nn.RNN(3, 4)
    plain.load_state_dict(fast.state_dict())
    assert_close(call(fast), call(plain))
    assert not torch.allclose(call(fast)[0], before[0])


@pytest.mark.parametrize("kind", [nn.LSTM, nn.RNNCell])
def test_weights_of_inference_mode(kind):
    """They have no version counters."""
    with torch.inference_mode():
        module = kind(3, 4)
        fast = accelerate(module)
        assert all(weight.is_inference() for weight in module.parameters())
        assert not any(weight.is_inference() for weight in fast.parameters())
        fast = accelerate(module, inplace=True)
        call(fast)
        prepared = fast._prepared
        call(fast)
        assert fast._prepared is prepared
        list(fast.parameters())[1].mul_(2)
        plain = kind(3, 4)
        plain.load_state_dict(fast.state_dict())
        assert_close(call(fast), call(plain))


def test_copies_change_by_themselves():
    fast = accelerate(nn.LSTM(3, 4))
    before = call(fast)
    other = copy.deepcopy(fast)
    with torch.no_grad():
        other.weight_ih_l0.zero_()
    assert_close(call(fast), before, 0)
    plain = nn.LSTM(3, 4)
    plain.load_state_dict(other.state_dict())
    assert_close(call(other), call(plain))


def test_training_between_calls():
    """Fine-tuning: the plain module is trained, the accelerated one shares its parameters."""
    torch.manual_seed(0)
    module = nn.LSTM(3, 4)
    fast = accelerate(module)
    fast.weight_ih_l0, fast.weight_hh_l0 = module.weight_ih_l0, module.weight_hh_l0
    fast.bias_ih_l0, fast.bias_hh_l0 = module.bias_ih_l0, module.bias_hh_l0
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.1)
    for _ in range(3):
        module(X)[0].square().sum().backward()
        optimizer.step()
        assert_close(call(fast), call(module))
