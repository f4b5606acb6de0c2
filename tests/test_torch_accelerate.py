"""fastrnn.torch.accelerate: what is replaced, what stays, what calls compute and what they refuse."""

import copy
import io
import itertools
import pickle
import threading
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest

import fastrnn
from fastrnn import _core

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.nn.utils import parametrizations, parametrize, prune  # noqa: E402
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence  # noqa: E402

from fastrnn.torch import accelerate  # noqa: E402
from fastrnn.torch.modules import Accelerated  # noqa: E402

LAYERS = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}
CELLS = {"lstm": nn.LSTMCell, "gru": nn.GRUCell, "rnn": nn.RNNCell}
LENGTHS = [3, 1, 7, 1, 3, 7, 5]  # no zeros: PyTorch refuses them


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture(params=["dlpack", "attributes"])
def reads_tensors(request):
    """The two ways to read tensors."""
    capsule = getattr(torch.Tensor, "__dlpack_c_exchange_api__", None)
    if request.param == "dlpack" and capsule is None:
        pytest.skip("this version of PyTorch has no DLPack exchange API")
    _core.use_dlpack(capsule if request.param == "dlpack" else None)
    yield
    _core.use_dlpack(capsule)


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


def tensors_of(result):
    """The tensors of a result, in order."""
    if isinstance(result, torch.Tensor | np.ndarray):
        return [result]
    return [tensor for part in result if part is not None for tensor in tensors_of(part)]


def assert_close(ours, theirs, tolerance=1e-5):
    for found, wanted in zip(tensors_of(ours), tensors_of(theirs), strict=True):
        assert type(found) is type(wanted) and found.is_contiguous() and not found.requires_grad
        torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance)


def assert_same_bits(ours, theirs):
    for found, wanted in zip(tensors_of(ours), tensors_of(theirs), strict=True):
        torch.testing.assert_close(found, torch.as_tensor(wanted), rtol=0, atol=0)


def states_of(module, *batch, dtype=torch.float32):
    """Random initial states, all different."""
    count = module.num_layers * (1 + module.bidirectional)
    h = torch.randn(count, *batch, module.proj_size or module.hidden_size, dtype=dtype)
    return (h, torch.randn(count, *batch, module.hidden_size, dtype=dtype)) if isinstance(module, nn.LSTM) else h


def cell_states_of(cell, *batch, dtype=torch.float32):
    h = torch.randn(*batch, cell.hidden_size, dtype=dtype)
    return (h, torch.randn(*batch, cell.hidden_size, dtype=dtype)) if isinstance(cell, nn.LSTMCell) else h


class Tagger(nn.Module):
    """Layers at several depths, one of them in two places."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.ModuleDict({"deep": nn.Sequential(nn.Linear(3, 4), nn.GRU(4, 5))})
        self.rnn = nn.LSTM(5, 4, 2, bidirectional=True)
        self.again = self.rnn
        self.cell = nn.RNNCell(8, 6, nonlinearity="relu")

    def forward(self, x):
        y, _ = self.encoder["deep"](x)
        y, _ = self.rnn(y)
        z, _ = self.again(y[..., :5])
        h = None
        for step in z:
            h = self.cell(step, h)
        return y, h


# What calls compute


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}, {"bias": False}], ids=str)
@pytest.mark.parametrize("name", [*LAYERS, "projection", "relu"])
def test_sequences(name, options, dtype):
    """Batched in both orders, single, packed in both orders, with and without states."""
    kind = {"projection": nn.LSTM, "relu": nn.RNN}.get(name) or LAYERS[name]
    options = options | {"projection": {"proj_size": 3}, "relu": {"nonlinearity": "relu"}}.get(name, {})
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    for batch_first in (False, True):
        module = kind(6, 17, batch_first=batch_first, dtype=dtype, **options)
        fast = accelerate(module)
        x = torch.randn(7, 7, 6, dtype=dtype)
        state = states_of(module, 7, dtype=dtype)
        lengths = torch.tensor(LENGTHS)
        padded = torch.where(torch.arange(7)[:, None] < lengths, 1.0, np.nan)[..., None].to(dtype) * x
        padded = padded.swapaxes(0, 1) if batch_first else padded
        packed = pack_padded_sequence(padded, lengths, batch_first, enforce_sorted=False)
        ordered = pack_padded_sequence(x, sorted(LENGTHS)[::-1], batch_first)
        for inputs in ((x, state), (x, None), (packed, state), (packed, None), (ordered, state)):
            assert_close(fast(*inputs), module(*inputs), tolerance)
        single = states_of(module, dtype=dtype)
        assert_close(fast(x[0], single), module(x[0], single), tolerance)
        assert_close(fast(x[0]), module(x[0]), tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", [*CELLS, "relu"])
def test_cells(name, bias, dtype, reads_tensors):
    options = {"nonlinearity": "relu"} if name == "relu" else {}
    cell = CELLS.get(name, nn.RNNCell)(6, 17, bias, dtype=dtype, **options)
    fast = accelerate(cell)
    for batch in ((), (1,), (5,), (0,), (3,)):
        x, state = torch.randn(*batch, 6, dtype=dtype), cell_states_of(cell, *batch, dtype=dtype)
        for inputs in ((x, state), (x,), (x, state)):  # the first call prepares, the others use what it prepared
            assert_close(fast(*inputs), cell(*inputs), 1e-5 if dtype == torch.float32 else 1e-12)


def test_the_bits_are_the_layers(rng):
    """Sequences, packed sequences and cells against fastrnn's layer of the same weights."""
    for name, kind in LAYERS.items():
        module = kind(6, 17, 2, bidirectional=True, batch_first=True)
        fast, layer = accelerate(module), getattr(fastrnn, name.upper()).from_torch(module)
        x, state = torch.randn(7, 9, 6), states_of(module, 7)
        assert_same_bits(fast(x, state), layer(x.numpy(), state))
        packed = pack_padded_sequence(x, torch.tensor(LENGTHS), True, enforce_sorted=False)
        y, last = fast(packed, state)
        expected, expected_last = layer(x.numpy(), state, lengths=LENGTHS)
        assert_same_bits([pad_packed_sequence(y, True, total_length=9)[0], last], [expected, expected_last])
    for name, kind in CELLS.items():
        cell = kind(6, 17)
        fast, layer = accelerate(cell), getattr(fastrnn, name.upper()).from_torch(cell)
        x, state = torch.randn(3, 6), cell_states_of(cell, 3)
        stacked = tuple(part[None] for part in state) if name == "lstm" else state[None]
        _, last = layer(x.numpy()[:, None], stacked)
        for _ in range(2):
            assert_same_bits(fast(x, state), [part[0] for part in last] if name == "lstm" else last[0])


def test_packed_sequences_keep_their_order():
    module = accelerate(nn.GRU(2, 3))
    x = torch.randn(7, 7, 2)
    packed = pack_padded_sequence(x, torch.tensor(LENGTHS), enforce_sorted=False)
    y, _ = module(packed)
    assert type(y) is PackedSequence
    for name in ("batch_sizes", "sorted_indices", "unsorted_indices"):
        assert getattr(y, name) is getattr(packed, name)
    y, _ = module(pack_padded_sequence(x, sorted(LENGTHS)[::-1]))
    assert y.sorted_indices is None and y.unsorted_indices is None


def test_a_model_with_layers_everywhere():
    model = Tagger().eval()
    fast = accelerate(model)
    x = torch.randn(6, 3, 3)
    assert_close(fast(x), model(x))
    assert fast is not model and fast.again is fast.rnn and type(model.rnn) is nn.LSTM
    accelerated = [path for path, module in fast.named_modules() if isinstance(module, Accelerated)]
    assert accelerated == ["encoder.deep.1", "rnn", "cell"]


def test_in_place():
    """The modules stay the same objects, wherever they are kept."""
    model = Tagger().eval()
    kept = [model.rnn, model.cell]  # which PyTorch does not know
    x = torch.randn(6, 3, 3)
    wanted = model(x)
    assert accelerate(model, inplace=True) is model and kept[0] is model.rnn is model.again
    assert_close(model(x), wanted)
    layer = nn.LSTM(2, 3)
    assert accelerate(layer, inplace=True) is layer and type(layer) is not nn.LSTM


def test_twice_is_once():
    fast = accelerate(nn.LSTM(2, 3))
    again = accelerate(fast)
    assert type(again) is type(fast) and again is not fast
    assert accelerate(fast, inplace=True) is fast


def test_subclasses():
    """Those with their own forward are left and named; others are replaced and keep their class's methods."""

    class Doubled(nn.LSTM):
        def forward(self, input, hx=None):
            return super().forward(2 * input, hx)

    class Named(nn.GRU):
        def title(self):
            return f"GRU of {self.hidden_size}"

    model = nn.ModuleDict({"a": Doubled(2, 3), "b": Named(2, 3), "c": nn.LSTM(2, 3)})
    model["c"].forward = model["c"].forward
    with pytest.warns(UserWarning, match=r"a, a Doubled with a forward of its own; c, a LSTM with a forward"):
        fast = accelerate(model)
    x = torch.randn(4, 1, 2)
    assert type(fast["a"]) is Doubled and type(fast["c"]) is nn.LSTM
    assert isinstance(fast["b"], Named) and type(fast["b"]) is not Named and fast["b"].title() == "GRU of 3"
    assert_close([fast[name](x) for name in "abc"], [model[name](x) for name in "abc"], 1e-5)
    with pytest.warns(UserWarning, match="the model, a Doubled with"):
        accelerate(model["a"])


def test_nothing_to_accelerate():
    with pytest.warns(UserWarning, match="nothing to accelerate"):
        accelerate(nn.Linear(2, 3))


def test_other_modules_are_refused():
    with pytest.raises(TypeError, match="model is dict"):
        accelerate({})
    with pytest.raises(TypeError, match="TorchScript"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        accelerate(torch.jit.script(nn.LSTM(2, 3)))
    with pytest.raises(TypeError, match="inplace is 1"):
        accelerate(nn.LSTM(2, 3), inplace=1)
    for threads, error in ((0, ValueError), (1025, ValueError), (1.0, TypeError), (True, TypeError)):
        with pytest.raises(error, match="num_threads"):
            accelerate(nn.LSTM(2, 3), num_threads=threads)


def test_scripted_parts_are_left():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(nn.Sequential(nn.LSTM(2, 3)))
    model = nn.ModuleList([scripted, nn.GRU(2, 3)])
    with pytest.warns(UserWarning, match=r"0\.0, a TorchScript module"):
        fast = accelerate(model)
    x = torch.randn(4, 1, 2)
    assert_close([fast[0](x), fast[1](x)], [model[0](x), model[1](x)])


def test_data_parallel():
    model = nn.Sequential(nn.Linear(2, 2), nn.LSTM(2, 3, batch_first=True))
    x = torch.randn(4, 5, 2)
    assert_close(accelerate(nn.DataParallel(model))(x), model(x))


# What stays as it was


@pytest.mark.parametrize("kind", [*LAYERS.values(), *CELLS.values()])
def test_modules_stay_readable(kind):
    module = kind(4, 5, **({"proj_size": 2} if kind is nn.LSTM else {}))
    fast = accelerate(module)
    assert isinstance(fast, kind) and type(fast).__name__ == kind.__name__ and repr(fast) == repr(module)
    for name in ("input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout", "proj_size", "training"):
        assert getattr(fast, name, None) == getattr(module, name, None)
    ours, theirs = fast.state_dict(), module.state_dict()
    assert list(ours) == list(theirs)
    for name in ("get_expected_hidden_size", "get_expected_cell_size", "check_forward_args", "permute_hidden"):
        assert hasattr(fast, name) is hasattr(module, name)
    for name, wanted in theirs.items():
        assert torch.equal(ours[name], wanted) and ours[name].data_ptr() != wanted.data_ptr()
        assert isinstance(getattr(fast, name), nn.Parameter)
    assert [name for name, _ in fast.named_parameters()] == [name for name, _ in module.named_parameters()]
    fast.load_state_dict(theirs)
    if hasattr(module, "all_weights"):
        fast.flatten_parameters()
        assert [len(weights) for weights in fast.all_weights] == [len(weights) for weights in module.all_weights]
    assert dir(module) == [name for name in dir(fast) if name in dir(module)]


@pytest.mark.parametrize("kind", [*LAYERS.values(), *CELLS.values()])
def test_the_class(kind):
    """What modules say of their class, and what giving them one does."""
    fast = accelerate(kind(3, 4))
    cls = type(fast)
    assert isinstance(fast, kind) and issubclass(fast.__class__, kind) and not isinstance(fast, (nn.Linear, Bare))
    fast.__class__ = fast.__class__
    assert type(fast) is cls
    fast.__class__ = kind
    assert type(fast) is kind
    fast.__class__ = cls
    assert type(fast) is cls and fast(torch.ones(2, 3)) is not None


@pytest.mark.parametrize("kind", [*LAYERS.values(), *CELLS.values()])
def test_fx_sees_whole_modules(kind):
    """As it sees PyTorch's own."""
    model = nn.Sequential(kind(3, 4))
    fast = accelerate(model)
    x = torch.randn(2, 3)
    for _ in range(2):
        traced = torch.fx.symbolic_trace(fast)
        assert [node.op for node in traced.graph.nodes] == ["placeholder", "call_module", "output"]
        assert_close(traced(x), model(x))


def test_hooks_run():
    module, calls = nn.LSTM(2, 3), []
    module.register_forward_pre_hook(lambda module, inputs: (2 * inputs[0],))
    module.register_forward_hook(lambda module, inputs, outputs: calls.append(type(module)) or (outputs[0] + 1, 0))
    fast = accelerate(module)
    x = torch.randn(4, 1, 2)
    assert_close(fast(x)[0], module(x)[0])
    assert calls == [type(fast), nn.LSTM]


def test_training_and_evaluation_are_kept():
    module = nn.Sequential(nn.GRU(2, 3, 2, dropout=0.5)).eval()
    fast = accelerate(module)
    assert not fast.training and not fast[0].training
    assert_close(fast(torch.ones(3, 1, 2)), module(torch.ones(3, 1, 2)))


def test_tied_weights():
    model = nn.ModuleList([nn.RNN(3, 3), nn.RNN(3, 3)])
    model[1].weight_hh_l0 = model[0].weight_hh_l0
    fast = accelerate(model)
    assert fast[1].weight_hh_l0 is fast[0].weight_hh_l0
    x = torch.randn(4, 2, 3)
    assert_close([rnn(x) for rnn in fast], [rnn(x) for rnn in model])
    fast[0].weight_hh_l0.mul_(2), model[0].weight_hh_l0.mul_(2)
    assert_close([rnn(x) for rnn in fast], [rnn(x) for rnn in model])


def copies_of(module):
    yield copy.deepcopy(module)
    yield copy.copy(module)
    yield pickle.loads(pickle.dumps(module))
    file = io.BytesIO()
    torch.save(module, file)
    yield torch.load(io.BytesIO(file.getvalue()), weights_only=False)


class Bare(nn.GRU):
    """A subclass that can be pickled."""


@pytest.mark.parametrize("kind", [nn.LSTM, Bare, nn.GRUCell])
def test_copies(kind):
    """Copies and pickles are accelerated, before and after a call, and do not share the parameters of deep copies."""
    module = kind(4, 5)
    fast = accelerate(module, num_threads=1)
    x = torch.randn(3, 4)
    for _ in range(2):
        for other in copies_of(fast):
            assert type(other) is type(fast) and other._num_threads == 1
            assert_same_bits(other(x), fast(x))
            assert_close(other(x), module(x))
    other = copy.deepcopy(fast)
    wanted = fast(x)
    next(other.parameters()).zero_()
    assert_same_bits(fast(x), wanted)


def test_pickles_hold_the_parameters_alone():
    module = nn.LSTM(30, 40)
    fast = accelerate(module)
    fast(torch.ones(1, 30))
    assert len(pickle.dumps(fast)) < len(pickle.dumps(module)) + 1000


@pytest.mark.parametrize("kind", [nn.LSTM, nn.LSTMCell])
def test_several_threads(kind):
    """Each with its own batches, on one module; in the middle the weights change for all."""
    module = kind(8, 16)
    fast = accelerate(module, num_threads=1)
    inputs = [torch.randn(3, 8) if kind is nn.LSTMCell else torch.randn(5, 3, 8) for _ in range(4)]
    state = cell_states_of(module, 3) if kind is nn.LSTMCell else states_of(module, 3)
    faults = []

    def work(x):
        wanted = tensors_of(fast(x, state))
        for _ in range(200):
            with torch.no_grad():
                found = tensors_of(fast(x, state))
            if not all(map(torch.equal, found, wanted)):
                faults.append(x)

    threads = [threading.Thread(target=torch.no_grad()(work), args=(x,)) for x in inputs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    assert_close([fast(x, state) for x in inputs], [module(x, state) for x in inputs])


class Rows(torch.utils.data.Dataset):
    """Items that a model computes."""

    def __init__(self, model):
        self.model = model

    def __len__(self):
        return 6

    @torch.no_grad()
    def __getitem__(self, i):
        return self.model(torch.full((3, 4), float(i)))[0]


def test_workers_of_a_data_loader():
    fast = accelerate(nn.LSTM(4, 5))
    rows = Rows(fast)
    wanted = torch.stack([rows[i] for i in range(6)])
    loader = torch.utils.data.DataLoader(rows, 2, num_workers=2, multiprocessing_context="fork")
    assert_same_bits(torch.cat(list(loader)), wanted)


@pytest.mark.slow
def test_spawned_workers_of_a_data_loader():
    rows = Rows(accelerate(nn.LSTM(4, 5)))
    loader = torch.utils.data.DataLoader(rows, 3, num_workers=1, multiprocessing_context="spawn")
    assert_same_bits(torch.cat(list(loader)), torch.stack([rows[i] for i in range(6)]))


# Threads


def num_tasks():
    """Threads of this process, those of C included."""
    return len(list(Path("/proc/self/task").iterdir()))


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts threads as Linux lists them")
@pytest.mark.parametrize("is_packed", [False, True])
def test_threads_follow_pytorch(is_packed):
    """A call starts as many threads as PyTorch's number at that time, or as accelerate was told."""
    x = torch.randn(5, 9, 4)
    x = pack_padded_sequence(x, [5] * 9) if is_packed else x
    before, before_of_pytorch = fastrnn.get_num_threads(), torch.get_num_threads()
    follows, told = accelerate(nn.LSTM(4, 5)), accelerate(nn.LSTM(4, 5), num_threads=4)
    follows(x)
    started = []
    try:
        _core.set_num_threads(1, 0)  # so that every call that can be divided is shared
        for fast, threads in ((follows, 1), (follows, 3), (follows, 1), (follows, 3), (told, 1)):
            torch.set_num_threads(threads)
            tasks = num_tasks()
            for _ in range(2):
                fast(x)
            started.append(num_tasks() - tasks)
    finally:
        fastrnn.set_num_threads(before)
        torch.set_num_threads(before_of_pytorch)
    assert started == [0, 2, 0, 0, 3]


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_bits_on_any_number_of_threads(threads):
    """Every call that can be divided is shared, on thread pools of several sizes at once."""
    module = nn.LSTM(20, 40, 2, bidirectional=True)
    x, lengths = torch.randn(9, 7, 20), torch.tensor(LENGTHS)
    packed = pack_padded_sequence(x, lengths, enforce_sorted=False)
    cell = nn.LSTMCell(20, 40)
    state = cell_states_of(cell, 50)
    wanted = accelerate(module, num_threads=1)(packed), accelerate(cell, num_threads=1)(torch.ones(50, 20), state)
    before = fastrnn.get_num_threads()
    _core.set_num_threads(2, 0)
    try:
        fast, fast_cell = accelerate(module, num_threads=threads), accelerate(cell, num_threads=threads)
        for _ in range(2):
            assert_same_bits(fast(packed), wanted[0])
            assert_same_bits(fast_cell(torch.ones(50, 20), state), wanted[1])
    finally:
        fastrnn.set_num_threads(before)


# Memory


@pytest.mark.parametrize("batch_first", [True, False])
def test_tensors_go_in_without_a_copy(batch_first):
    """Also those whose steps and rows are not adjacent."""
    module = accelerate(nn.GRU(200, 1, batch_first=batch_first))
    x = torch.randn(300, 2, 100, 200)[:, 0]  # 24 MB, and as much between its rows
    module(x[:2])
    tracemalloc.start()
    y, _ = module(x)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < x.nbytes / 10
    assert_close(y, module(x.contiguous())[0], 0)


@pytest.mark.parametrize("kind", [*LAYERS.values(), *CELLS.values()])
def test_tensors_of_any_layout(kind, reads_tensors):
    """Expanded, transposed, negated and odd strides, of inputs and states."""
    module = kind(3, 4)
    fast = accelerate(module)
    x = torch.randn(2, 3).T.contiguous().T
    views = [x, torch.randn(1, 3).expand(2, 3), torch.randn(2, 7)[:, 1::2], torch.randn(4, 3)[::2], torch._neg_view(x)]
    for view in views:
        for _ in range(2):
            assert_close(fast(view), module(view))
    state = cell_states_of(module, 2) if kind in CELLS.values() else states_of(module)
    for change in (lambda h: h.T.contiguous().T, torch._neg_view, lambda h: h[:1].expand(h.shape)):
        changed = tuple(map(change, state)) if isinstance(state, tuple) else change(state)
        assert_close(fast(x, changed), module(x, changed))


@pytest.mark.parametrize("kind", [nn.LSTM, nn.LSTMCell])
def test_results_are_new_memory(kind):
    fast = accelerate(kind(3, 4))
    x = torch.randn(2, 3)
    results = tensors_of(fast(x, tensors_of(fast(x))[-2:] if kind is nn.LSTMCell else None))
    again = tensors_of(fast(x, results[-2:] if kind is nn.LSTMCell else None))
    addresses = {tensor.untyped_storage().data_ptr() for tensor in (*results, *again)}
    assert len(addresses) == len(results) + len(again)


@pytest.mark.parametrize("kind", [nn.GRU, nn.GRUCell])
def test_inference_mode_makes_inference_tensors(kind):
    fast = accelerate(kind(3, 4))
    with torch.inference_mode():
        for _ in range(2):
            assert all(tensor.is_inference() for tensor in tensors_of(fast(torch.ones(2, 3), None)))


def test_a_default_device_changes_nothing():
    fast, cell = accelerate(nn.LSTM(3, 4)), accelerate(nn.LSTMCell(3, 4))
    x, state = torch.ones(2, 3), (torch.ones(2, 4), torch.ones(2, 4))
    wanted = fast(x), cell(x, state)
    with torch.device("meta"):
        found = fast(x), cell(x, state)
    assert_same_bits(found, wanted)


class Tagged(torch.Tensor):
    """A subclass of tensors."""


def test_subclasses_of_tensors():
    """PyTorch gives their class to the results."""
    for module, x in itertools.product((nn.LSTM(3, 4), nn.LSTMCell(3, 4)), [torch.randn(2, 3)]):
        found = tensors_of(accelerate(module)(x.as_subclass(Tagged)))
        assert {type(tensor) for tensor in found} == {Tagged}
        assert_close([tensor.as_subclass(torch.Tensor) for tensor in found], module(x))


# What is refused


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRUCell])
def test_gradients_are_refused(kind):
    fast = accelerate(kind(3, 4))
    x = torch.ones(2, 3)
    fast(x)
    wanted = fast(x)
    with torch.enable_grad():
        with pytest.raises(RuntimeError, match=r"weight_ih(_l0)? requires grad.*wanted a call under torch.no_grad\(\)"):
            fast(x)
        fast.requires_grad_(False)
        assert_same_bits(fast(x), wanted)
        with pytest.raises(RuntimeError, match="an input requires grad"):
            fast(x.clone().requires_grad_())
        state = torch.ones(1, 4) if kind is nn.LSTM else torch.ones(2, 4)
        with pytest.raises(RuntimeError, match="an input requires grad"):
            fast(x, (state, state.clone().requires_grad_()) if kind is nn.LSTM else state.requires_grad_())
    assert_same_bits(fast(x.requires_grad_()), wanted)


@pytest.mark.slow  # PyTorch prepares for tangents for seconds
def test_tangents_are_refused():
    for fast in (accelerate(nn.LSTM(3, 4)), accelerate(nn.GRUCell(3, 4))):
        x = torch.ones(2, 3)
        fast(x, None), fast(x, None)
        with torch.autograd.forward_ad.dual_level():
            with pytest.raises(RuntimeError, match="tangent"):
                fast(torch.autograd.forward_ad.make_dual(x, x))
            fast(x)


def test_training_with_dropout_is_refused():
    fast = accelerate(nn.LSTM(3, 4, 2, dropout=0.1))
    with pytest.raises(RuntimeError, match=r"training mode and its dropout is 0\.1: wanted module\.eval\(\)"):
        fast(torch.ones(2, 3))
    fast.eval()(torch.ones(2, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        accelerate(nn.LSTM(3, 4, 1, dropout=0.1))(torch.ones(2, 3))  # PyTorch drops nothing after the last layer


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRUCell])
def test_other_devices_are_refused(kind):
    fast = accelerate(kind(3, 4))
    fast(torch.ones(2, 3))
    with pytest.raises(RuntimeError, match="on device meta, wanted the CPU"):
        fast(torch.ones(2, 3, device="meta"))
    fast.to("meta")
    with pytest.raises(RuntimeError, match="on device meta, wanted the CPU"):
        fast(torch.ones(2, 3))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    """Refused, unless the weights are of that type: then widened, with a warning."""
    x = torch.randn(2, 3, dtype=dtype)
    for kind, error in ((nn.LSTM, ValueError), (nn.LSTMCell, RuntimeError)):
        with pytest.raises(error, match="dtype"):
            accelerate(kind(3, 4))(x)
        module = kind(3, 4, dtype=dtype)
        fast = accelerate(module)
        with pytest.warns(UserWarning, match=f"{dtype}.*widens"):
            found = fast(x)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = fast(x)
        assert {tensor.dtype for tensor in tensors_of(found)} == {dtype}
        wanted = tensors_of(module.float()(x.float()))
        for ours, theirs in zip(tensors_of(found), wanted, strict=True):
            torch.testing.assert_close(ours, theirs.to(dtype), rtol=1e-2, atol=1e-2)
        assert_same_bits(found, [part.to(dtype) for part in tensors_of(accelerate(module)(x.float()))])


@pytest.mark.parametrize("narrow", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", [*LAYERS.values(), *CELLS.values()])
def test_autocast(kind, narrow):
    """Results of the dtypes that PyTorch's have, of inputs and weights of any dtype; computed in float32."""
    x, state = torch.randn(2, 3), torch.randn(2, 4) if kind in CELLS.values() else torch.randn(1, 4)
    pair = (state, state) if kind in (nn.LSTM, nn.LSTMCell) else state
    for weights, inputs, states in itertools.product([torch.float32, narrow, torch.float64], repeat=3):
        is_double = weights == torch.float64
        if is_double is not (inputs == torch.float64) or is_double is not (states == torch.float64):
            continue
        module = kind(3, 4, dtype=weights)
        fast = accelerate(module)
        hx = tuple(part.to(states) for part in pair) if isinstance(pair, tuple) else pair.to(states)
        for arguments in ((x.to(inputs), hx), (x.to(inputs),)) * 2:
            with torch.autocast("cpu", narrow), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found, wanted = fast(*arguments), module(*arguments)
            assert [part.dtype for part in tensors_of(found)] == [part.dtype for part in tensors_of(wanted)]
            if weights == torch.float32:
                wide = [
                    tuple(p.float() for p in part) if isinstance(part, tuple) else part.float() for part in arguments
                ]
                wanted = [b.to(a.dtype) for a, b in zip(tensors_of(found), tensors_of(fast(*wide)), strict=True)]
                assert_same_bits(found, wanted)


def test_autocast_of_packed_sequences():
    x, lengths = torch.randn(7, 7, 3).bfloat16(), torch.tensor(LENGTHS)
    packed = pack_padded_sequence(x, lengths, enforce_sorted=False)
    for kind in LAYERS.values():
        module = kind(3, 4)
        with torch.autocast("cpu", torch.bfloat16):
            (y, last), (wanted, wanted_last) = accelerate(module)(packed), module(packed)
        ours, theirs = tensors_of((y.data, last)), tensors_of((wanted.data, wanted_last))
        assert [part.dtype for part in ours] == [part.dtype for part in theirs]
        for found, expected in zip(ours, theirs, strict=True):
            torch.testing.assert_close(found, expected, rtol=0.1, atol=0.1)
        with torch.autocast("cpu", torch.bfloat16), pytest.raises(RuntimeError):
            accelerate(module)(x.double())


def message_of(module, *inputs):
    with pytest.raises((RuntimeError, ValueError, TypeError, AttributeError, IndexError)) as caught:
        module(*inputs)
    return type(caught.value), str(caught.value)


def mixed(kind, name):
    """A module one of whose weights is of another dtype."""
    module = kind(3, 4)
    setattr(module, name, nn.Parameter(getattr(module, name).double()))
    return module


def test_types_of_exceptions(reads_tensors):
    """PyTorch's, also where its words come from C++."""
    x, h, cell_x, cell_h = torch.ones(5, 2, 3), torch.ones(1, 2, 4), torch.ones(2, 3), torch.ones(2, 4)
    lstm, gru, rnn = nn.LSTM(3, 4), nn.GRU(3, 4), nn.RNN(3, 4)
    lstm_cell, gru_cell, rnn_cell = nn.LSTMCell(3, 4), nn.GRUCell(3, 4), nn.RNNCell(3, 4)
    double = pack_padded_sequence(x.double(), [5, 2])
    for module, *inputs in (
        *((cell, cell_x.to(dtype)) for cell in (lstm_cell, gru_cell, rnn_cell) for dtype in (torch.int64, torch.half)),
        *((module, double) for module in (lstm, gru, rnn)),
        (lstm, x, (h, h, h)),
        (lstm, x, (h,)),
        (lstm, x, torch.ones(2, 1, 2, 4)),
        (lstm, pack_padded_sequence(x, [5, 2]), (h, h, h)),
        (lstm_cell, cell_x, (cell_h,)),
        (lstm_cell, cell_x, (cell_h, cell_h, cell_h)),
        (lstm_cell, cell_x, ()),
        (lstm_cell, cell_x, cell_h),
        (lstm_cell, cell_x, torch.ones(2, 2, 4)),
        (lstm_cell, cell_x, torch.tensor(1.0)),
        (lstm_cell, torch.ones(3), (torch.ones(4),)),
        *((mixed(kind, "weight_hh_l0"), x) for kind in LAYERS.values()),
        *((mixed(kind, "bias_ih"), cell_x) for kind in CELLS.values()),
        (lstm, x.to_mkldnn()),
        (gru_cell, cell_x.to_mkldnn()),
        (gru, torch.quantize_per_tensor(x, 0.1, 0, torch.qint8)),
        (lstm, torch.nested.nested_tensor([x[0], x[1]])),
    ):
        fast = accelerate(module)
        for _ in range(2):
            error = message_of(module, *inputs)[0]
            assert message_of(fast, *inputs)[0] is error, inputs
            if (module in (lstm, gru) and error is not ValueError) or module in (lstm_cell, gru_cell):
                fast(*((x, None) if isinstance(module, nn.RNNBase) else (cell_x, None)))
    assert message_of(accelerate(gru), x.to_sparse())[0] is NotImplementedError  # PyTorch: RuntimeError, its base
    with pytest.raises(RuntimeError, match=r"weight_hh_l0 is torch\.float64, wanted torch\.float32"):
        accelerate(mixed(nn.GRU, "weight_hh_l0"))(x)


def test_what_pytorch_refuses():
    """The same exceptions; where PyTorch's own code says why, the same words."""
    h, c = torch.ones(1, 2, 4), torch.ones(1, 2, 4)
    lstm, gru, rnn = nn.LSTM(3, 4), nn.GRU(3, 4), nn.RNN(3, 4)
    x = torch.ones(5, 2, 3)
    packed = pack_padded_sequence(x, [5, 2])
    for module, *inputs in (
        (lstm, torch.ones(5, 2, 2)),
        (lstm, x.double()),
        (lstm, torch.ones(5, 2, 2, 3)),
        (gru, torch.ones(3)),
        (lstm, torch.ones(0, 2, 3)),
        (lstm, x, (h, torch.ones(1, 2, 5))),
        (lstm, x, (torch.ones(1, 3, 4), c)),
        (gru, x, torch.ones(2, 2, 4)),
        (gru, pack_padded_sequence(torch.ones(5, 2, 2), [5, 2])),
        (gru, packed, torch.ones(1, 3, 4)),
    ):
        assert message_of(accelerate(module), *inputs) == message_of(module, *inputs)
    for module, *inputs in (
        (lstm, torch.ones(5, 3), (h, c)),
        (rnn, torch.ones(5, 3), h),
        (lstm, x, (h[0], c[0])),
        (gru, x, h[0]),
        (gru, x, (h, c)),
        (rnn, x, h.double()),
        (lstm, packed, (torch.ones(1, 3, 4), c)),
    ):
        assert message_of(accelerate(module), *inputs)[0] is message_of(module, *inputs)[0]


def test_what_cells_of_pytorch_refuse():
    lstm, gru, rnn = nn.LSTMCell(3, 4), nn.GRUCell(3, 4), nn.RNNCell(3, 4)
    x, h = torch.ones(2, 3), torch.ones(2, 4)
    for module, *inputs in (
        (lstm, torch.ones(2, 2)),
        (lstm, torch.ones(2, 2, 3)),
        (lstm, x, (h, torch.ones(1, 2, 2, 4))),
        (lstm, x, (torch.ones(2, 5), h)),
        (lstm, x, (torch.ones(3, 4), h)),
        (gru, x, torch.ones(2, 5)),
        (gru, x, torch.ones(3, 4)),
        (gru, torch.ones(1, 1, 1, 3)),
        (rnn, torch.ones(2, 4), h),
        (rnn, x, torch.ones(1, 1, 2, 4)),
    ):
        fast = accelerate(module)
        assert message_of(fast, *inputs) == message_of(module, *inputs)
        fast(x), fast(x, (h, h) if module is lstm else h)
        assert message_of(fast, *inputs) == message_of(module, *inputs)
    for module, *inputs in ((gru, x, h.double()), (lstm, x.double()), (rnn, torch.ones(1, 3), torch.ones(4))):
        assert message_of(accelerate(module), *inputs)[0] is RuntimeError
    # PyTorch reads beyond these states.
    with pytest.raises(RuntimeError, match="hidden0 is 2-D, but the input is 1-D"):
        accelerate(lstm)(torch.ones(3), torch.ones(2, 2, 4))


def test_the_nonlinearity_of_a_cell_is_read_at_each_call():
    cell = nn.RNNCell(3, 4)
    fast = accelerate(cell)
    x, h = torch.randn(2, 3), torch.randn(2, 4)
    for name in ("tanh", "relu", "tanh"):
        fast.nonlinearity = cell.nonlinearity = name
        for _ in range(2):
            assert_close(fast(x, h), cell(x, h))
    fast.nonlinearity = cell.nonlinearity = "sine"
    assert message_of(fast, x) == message_of(cell, x)


def test_packed_sequences_that_contradict_themselves():
    """Made by hand: refused before any memory is read."""
    fast = accelerate(nn.GRU(3, 4))
    for sizes, message in (
        ([1, 2], r"batch_sizes is \[1, 2\], wanted numbers from 1 on that never increase"),
        ([-1, 4], "never increase"),
        ([3, 0], "from 1 on"),
        ([-3], "from 1 on"),
        ([3, 1], "x has 3 steps, but batch_sizes adds up to 4"),
        ([1], "adds up to 1"),
        ([9, 9], "adds up to 18"),
    ):
        with pytest.raises(RuntimeError, match=message):
            fast(PackedSequence(torch.ones(3, 3), torch.tensor(sizes)))
    with pytest.raises(RuntimeError, match="int32"):
        fast(PackedSequence(torch.ones(3, 3), torch.tensor([2, 1], dtype=torch.int32)))
    for order in ([0, 5], [0]):
        with pytest.raises((RuntimeError, IndexError)):
            fast(PackedSequence(torch.ones(3, 3), torch.tensor([2, 1]), torch.tensor(order)), torch.ones(1, 2, 4))


def test_torchscript_is_refused_by_name():
    with pytest.raises(RuntimeError, match="LSTM is accelerated, and TorchScript cannot compile it"):
        torch.jit.script(nn.Sequential(accelerate(nn.LSTM(3, 4))))


# Computed weights


def test_parametrized_modules():
    """Before and after acceleration; removing a parametrization leaves the module accelerated."""
    x = torch.randn(5, 2, 3)
    for first in (True, False):
        module = nn.LSTM(3, 4)
        parametrized = parametrizations.weight_norm(module, "weight_hh_l0") if first else module
        fast = accelerate(parametrized)
        if not first:
            parametrizations.weight_norm(module, "weight_hh_l0")
            parametrizations.weight_norm(fast, "weight_hh_l0")
        assert list(fast.state_dict()) == list(module.state_dict())
        assert_close(fast(x), module(x))
        layer = fast._prepared.layer
        assert_close(copy.deepcopy(fast)(x), module(x))
        fast(x)
        assert fast._prepared.layer is layer  # new tensors with the same values
        fast.parametrizations.weight_hh_l0.original0.mul_(2)
        module.parametrizations.weight_hh_l0.original0.mul_(2)
        assert_close(fast(x), module(x))
        parametrize.remove_parametrizations(fast, "weight_hh_l0")
        assert type(fast) is type(accelerate(nn.LSTM(3, 4)))
        assert_close(fast(x), module(x))


def test_other_computed_weights():
    """Pruning, and the old weight_norm, compute weights before each call."""
    x = torch.randn(2, 3)
    for module in (nn.GRU(3, 4), nn.GRUCell(3, 4)):
        name = next(name for name, _ in module.named_parameters() if name.startswith("weight_hh"))
        prune.random_unstructured(module, name, 0.5)
        fast = accelerate(module)
        assert_close(fast(x), module(x))
        getattr(fast, f"{name}_orig").mul_(3), getattr(module, f"{name}_orig").mul_(3)
        assert_close(fast(x), module(x))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = nn.utils.weight_norm(nn.LSTM(3, 4), "weight_ih_l0")
    fast = accelerate(module)
    assert_close(fast(x), module(x))
    fast.weight_ih_l0_g.mul_(2), module.weight_ih_l0_g.mul_(2)
    assert_close(fast(x), module(x))


def test_computed_weights_with_gradients():
    """Made with grad mode on, so that copy.deepcopy refuses them."""
    x = torch.randn(2, 3)
    with torch.enable_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        modules = [nn.utils.weight_norm(nn.LSTM(3, 4), "weight_hh_l0"), nn.GRU(3, 4), nn.RNNCell(3, 4)]
        prune.l1_unstructured(modules[1], "weight_hh_l0", 0.4)
        prune.l1_unstructured(modules[2], "weight_hh", 0.4)
    for module in modules:
        with pytest.raises(RuntimeError):
            copy.deepcopy(module)
        fast = accelerate(nn.ModuleList([module, nn.Identity()]))[0]
        assert_close(fast(x), module(x))
        assert not {id(tensor) for tensor in fast.parameters()} & {id(tensor) for tensor in module.parameters()}
        for part in (fast, module):
            list(part.parameters())[-1].mul_(3)
        assert_close(fast(x), module(x))


# Weights in fewer bytes


@pytest.mark.parametrize("weight_dtype", ["float16", "int8"])
@pytest.mark.parametrize("kind", [*LAYERS.values(), *CELLS.values()])
def test_weight_dtype(kind, weight_dtype):
    """The bits of fastrnn's layer with these weights; the module's own weights stay, and changes are noticed."""
    module = kind(9, 17)
    fast = accelerate(module, weight_dtype=weight_dtype)
    assert all(map(torch.equal, fast.state_dict().values(), module.state_dict().values()))
    x = torch.randn(3, 9)
    name = kind.__name__.removesuffix("Cell")
    for _ in range(2):
        layer = getattr(fastrnn, name).from_torch(module, weight_dtype=weight_dtype)
        state = cell_states_of(module, 3) if kind in CELLS.values() else states_of(module)
        h0 = tuple(part[None] for part in state) if isinstance(state, tuple) else state[None]
        if kind in CELLS.values():
            _, last = layer(x.numpy()[:, None], h0)
            wanted = [part[0] for part in last] if name == "LSTM" else last[0]
        else:
            wanted = layer(x.numpy(), state)
        for again in (fast, fast, copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))):
            assert_same_bits(again(x, state), wanted)
        assert fast._prepared.layer.weight_dtype == weight_dtype
        assert not torch.equal(tensors_of(fast(x))[0], tensors_of(accelerate(module)(x))[0])
        for part in (fast, module):
            next(part.parameters()).mul_(2)
    again = accelerate(fast, inplace=True)
    assert_close(again(x), module(x))
    assert again._prepared.layer.weight_dtype == "float32"


def test_weight_dtypes_that_do_not_fit():
    with pytest.raises(ValueError, match="weight_dtype is 'float8', wanted None or one of"):
        accelerate(nn.LSTM(3, 4), weight_dtype="float8")
    with pytest.raises(ValueError, match="weight_dtype is 'float16' and dtype float64"):
        accelerate(nn.LSTM(3, 4, dtype=torch.float64), weight_dtype="float16")(torch.ones(2, 3).double())
    module = nn.GRUCell(3, 4)
    module.weight_hh[1, 2] = 1e6
    with pytest.raises(ValueError, match="weight_hh"):
        accelerate(module, weight_dtype="float16")(torch.ones(2, 3))


def test_functional_calls():
    """Other weights for one call, also of another dtype; the module's own are back afterwards."""
    x = torch.randn(2, 3)
    for module in (nn.LSTM(3, 4), nn.GRUCell(3, 4)):
        fast = accelerate(module)
        wanted = fast(x)
        for dtype in (torch.float32, torch.float64):
            weights = {name: torch.randn_like(weight).to(dtype) for name, weight in module.named_parameters()}
            found = torch.func.functional_call(fast, weights, (x.to(dtype),))
            assert_close(found, torch.func.functional_call(module, weights, (x.to(dtype),)))
            assert_same_bits(fast(x), wanted)
