"""Accelerated modules inside compiled, exported and traced programs: one operator for each module."""

import copy
import gc
import io
import subprocess
import sys
import warnings

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.fx.experimental.proxy_tensor import make_fx  # noqa: E402
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

import fastrnn.torch  # noqa: E402
from fastrnn.torch import accelerate, run  # noqa: E402
from fastrnn.torch.run import run_operator  # noqa: E402


@pytest.fixture(autouse=True)
def no_grad():
    torch.manual_seed(0)
    torch._dynamo.reset()
    with torch.no_grad():
        yield


class Model(nn.Module):
    def __init__(self, kind, **options):
        super().__init__()
        self.rnn = kind(3, 4, batch_first=True, **options)
        self.out = nn.Linear(4 * (1 + self.rnn.bidirectional), 2)

    def forward(self, x, hx=None):
        y, last = self.rnn(x, hx)
        return self.out(y).relu(), last


class Loop(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.second = nn.LSTMCell(3, 4), nn.GRUCell(4, 4)

    def forward(self, x):
        h, c = x.new_zeros(len(x[0]), 4), x.new_ones(len(x[0]), 4)
        z = self.second(h)
        for step in x:
            h, c = self.cell(step, (h, c))
            z = self.second(h, z)
        return z, self.cell(x[0, 0])


class Ragged(nn.Module):
    def __init__(self, pads=True):
        super().__init__()
        self.pads = pads
        self.rnn = nn.LSTM(3, 4, bidirectional=True)

    def forward(self, x, lengths, hx=None):
        packed = pack_padded_sequence(x, lengths, enforce_sorted=False)
        y, (h, c) = self.rnn(packed, hx)
        return (pad_packed_sequence(y)[0] if self.pads else y.data), h, c


def tensors_of(result):
    if isinstance(result, torch.Tensor):
        return [result]
    return [tensor for part in result for tensor in tensors_of(part)]


def assert_close(ours, theirs, tolerance=1e-5):
    for found, wanted in zip(tensors_of(ours), tensors_of(theirs), strict=True):
        assert found.shape == wanted.shape and found.dtype == wanted.dtype and found.stride() == wanted.stride()
        torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance)


def operators_in(graph):
    return [node.target for node in graph.nodes if node.target is torch.ops.fastrnn.run.default]


@pytest.mark.parametrize(("kind", "backend"), [(nn.LSTM, "aot_eager"), (nn.GRU, "eager"), (nn.RNN, "eager")])
def test_compile(kind, backend):
    """The whole graph, for several shapes."""
    model = Model(kind, num_layers=2).eval()
    fast = torch.compile(accelerate(model), fullgraph=True, backend=backend)
    for shape in ((2, 5, 3), (4, 7, 3)):  # which PyTorch makes a graph of any shape of
        x = torch.randn(shape)
        assert_close(fast(x), model(x))
    x = torch.randn(6, 3)
    _, last = model(x)
    assert_close(fast(x, last), model(x, last))


@pytest.mark.slow
def test_inductor():
    x = torch.randn(2, 5, 3)
    model = Model(nn.LSTM, bidirectional=True)
    assert_close(torch.compile(accelerate(model), fullgraph=True)(x), model(x))


def test_compile_cells():
    loop = Loop()
    x = torch.randn(3, 4, 3)
    assert_close(torch.compile(accelerate(loop), fullgraph=True, backend="aot_eager")(x), loop(x))


def test_compile_packed_sequences():
    """PyTorch makes and pads them outside of graphs, but takes them into one."""
    module, model = nn.LSTM(3, 4, bidirectional=True), Ragged()
    x, lengths = torch.randn(7, 4, 3), torch.tensor([3, 7, 1, 7])
    packed = pack_padded_sequence(x, lengths, enforce_sorted=False)
    hx = torch.randn(2, 4, 4), torch.randn(2, 4, 4)
    fast = torch.compile(accelerate(module), fullgraph=True, backend="eager")
    for inputs in ((packed, hx), (packed,)):
        (y, last), (wanted, wanted_last) = fast(*inputs), module(*inputs)
        assert_close((y.data, last), (wanted.data, wanted_last))
    assert_close(torch.compile(accelerate(model), backend="eager")(x, lengths, hx), model(x, lengths, hx))


def test_compiled_models_notice_changes():
    model = Model(nn.LSTM)
    fast = accelerate(model)
    compiled = torch.compile(fast, fullgraph=True, backend="aot_eager")
    x = torch.randn(2, 5, 3)
    half = {name: weight.clone() / 2 for name, weight in model.rnn.state_dict().items()}
    for change in (
        lambda m: m.rnn.weight_hh_l0.mul_(2),
        lambda m: m.rnn.load_state_dict({name: weight.clone() for name, weight in half.items()}, assign=True),
        lambda m: m.rnn.double().float(),
        lambda m: m.double(),
    ):
        assert_close(compiled(x), model(x))
        change(fast), change(model)
        x = x.to(model.rnn.bias_ih_l0.dtype)
        assert_close(compiled(x), model(x))


def test_compiled_calls_refuse_gradients():
    fast = torch.compile(accelerate(Model(nn.GRU)), backend="eager")
    with torch.enable_grad(), pytest.raises(RuntimeError, match="requires grad, and grad mode is on"):
        fast(torch.randn(2, 5, 3))


def test_acceleration_of_a_compiled_model():
    model = Model(nn.GRU)
    compiled = torch.compile(model, backend="aot_eager")
    x = torch.randn(2, 5, 3)
    wanted = compiled(x)
    accelerate(compiled, inplace=True)
    assert type(model.rnn) is not nn.GRU
    assert_close(compiled(x), wanted)


@pytest.mark.parametrize("strict", [False, True])
def test_export(strict):
    """With dynamic shapes; saved and loaded."""
    model = Model(nn.LSTM, bidirectional=True)
    x = torch.randn(2, 5, 3)
    shapes = {"x": {0: torch.export.Dim("B"), 1: torch.export.Dim("T")}}
    program = torch.export.export(accelerate(model), (x,), dynamic_shapes=shapes, strict=strict)
    assert len(operators_in(program.graph)) == 1
    file = io.BytesIO()
    torch.export.save(program, file)
    loaded = torch.export.load(io.BytesIO(file.getvalue())).module()
    for shape in ((2, 5, 3), (3, 9, 3)):
        x = torch.randn(shape)
        assert_close(loaded(x), model(x))
        assert_close(program.module()(x), model(x))


def test_export_of_cells_and_packed_sequences():
    x, lengths = torch.randn(7, 4, 3), torch.tensor([3, 7, 1, 7])
    loop = Loop()
    program = torch.export.export(accelerate(loop), (x,))
    assert len(operators_in(program.graph)) == 16
    assert_close(program.module()(x), loop(x))
    model = Ragged(pads=False)  # PyTorch does not export pad_packed_sequence
    hx = torch.randn(2, 4, 4), torch.randn(2, 4, 4)
    assert_close(
        torch.export.export(accelerate(model), (x, lengths, hx)).module()(x, lengths, hx), model(x, lengths, hx)
    )


PROGRAM = """
import sys
import torch

model, exported, x, y = sys.argv[1:]
torch.set_grad_enabled(False)
x = torch.load(x)
model = torch.load(model, weights_only=False)  # which imports fastrnn.torch
results = [model(x)]
assert "torch._dynamo" not in sys.modules  # it takes as long to import as PyTorch
results.append(torch.export.load(exported).module()(x))
results.append(torch.compile(model, fullgraph=True, backend="eager")(x))
torch.save(results, y)
"""


@pytest.mark.slow
def test_a_new_process(tmp_path):
    """It runs, exported programs and whole models, and compiles these."""
    model = nn.GRU(3, 4)
    fast = accelerate(model)
    x = torch.randn(2, 5, 3)
    paths = [tmp_path / name for name in ("model.pt", "exported.pt2", "x.pt", "y.pt")]
    torch.save(fast, paths[0])
    torch.export.save(torch.export.export(fast, (x,)), paths[1])
    torch.save(x, paths[2])
    subprocess.run([sys.executable, "-c", PROGRAM, *paths], check=True)
    for found in torch.load(paths[3]):
        assert_close(found, model(x))


def test_trace():
    """A traced program has the operator, too, and takes other shapes."""
    model = Model(nn.LSTM)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(accelerate(model), torch.randn(2, 5, 3))
    assert "fastrnn::run" in str(traced.inlined_graph)
    x = torch.randn(4, 7, 3)
    assert_close(traced(x), model(x))


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRUCell])
def test_make_fx(kind):
    """Before and after a first call; other modes of dispatch see the operator, too."""
    module = kind(3, 4)
    fast = accelerate(module)
    x, other = torch.randn(2, 3), torch.randn(2, 3)
    for _ in range(2):
        traced = make_fx(lambda x: fast(x))(x)
        assert len(operators_in(traced.graph)) == 1
        assert_close(traced(other), module(other))
        fast(x), fast(x)
        with LoggingMode() as mode:
            fast(x)
        assert torch.ops.fastrnn.run.default in mode.seen


class LoggingMode(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.seen.append(function)
        return function(*args, **(kwargs or {}))


def test_weight_dtype():
    """Compiled and exported programs round the weights, too."""
    fast = accelerate(nn.LSTM(3, 4), weight_dtype="float16")
    x = torch.randn(5, 2, 3)
    wanted = fast(x)
    assert_close(torch.compile(fast, fullgraph=True, backend="eager")(x), wanted, 0)
    assert_close(torch.export.export(fast, (x,)).module()(x), wanted, 0)


def test_compile_under_autocast():
    model = Model(nn.LSTM)
    fast = accelerate(model)
    compiled = torch.compile(fast, fullgraph=True, backend="eager")
    x = torch.randn(2, 5, 3)
    for enabled in (True, False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            assert_close(compiled(x), fast(x), 0)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("mode", ["LSTM", "GRU", "RNN_RELU"])
def test_the_operator_keeps_pytorchs_rules(mode, packed):
    """Schema, fake kernel and real kernel agree: shapes, strides, no aliases, no writes."""
    module = {"LSTM": nn.LSTM, "GRU": nn.GRU, "RNN_RELU": nn.RNN}[mode](3, 4, 2, bidirectional=True)
    x = torch.randn(7, 3) if packed else torch.randn(5, 2, 3)
    sizes = torch.tensor([2, 2, 1, 1, 1]) if packed else None
    weights = [weight.detach() for weight in module._flat_weights]
    h0, c0 = torch.randn(4, 2, 4), torch.randn(4, 2, 4) if mode == "LSTM" else None
    for states in ((h0, c0), (None, None)):
        torch.library.opcheck(run_operator, (x, sizes, *states, weights, mode, 2, True, False, 1))


def test_the_operator_forgets_weights():
    """It keeps what it prepared no longer than the weights."""
    gc.collect()
    before = len(run._prepared)
    fast = accelerate(nn.LSTM(3, 4))
    torch.jit.trace(fast, torch.ones(2, 3))
    assert len(run._prepared) == before + 1
    del fast
    gc.collect()
    assert len(run._prepared) == before


def test_the_operator_checks_memory():
    module = nn.GRU(3, 4)
    weights = [weight.detach() for weight in module._flat_weights]
    for x, sizes, h0 in (
        (torch.ones(5, 2, 4), None, None),
        (torch.ones(5, 2, 3), None, torch.ones(1, 3, 4)),
        (torch.ones(5, 3), torch.tensor([9]), None),
        (torch.ones(5, 3), torch.tensor([2, -1]), None),
        (torch.ones(5), None, None),
    ):
        with pytest.raises((ValueError, IndexError, RuntimeError)):
            run_operator(x, sizes, h0, None, weights, "GRU", 1, False, True, 1)


def test_the_operator_checks_its_options():
    """Also those that do not fit to weights that are prepared."""
    module = nn.GRU(3, 4)
    weights = [weight.detach() for weight in module._flat_weights]
    x = torch.ones(5, 2, 3)
    run_operator(x, None, None, None, weights, "GRU", 1, False, True, 1)
    for options, message in (
        (("XYZ", 1, False, True, 1), "mode is 'XYZ', wanted one of LSTM, GRU"),
        (("GRU", 2, False, True, 1), "weight_ih_l1 has shape"),
        (("GRU", 3, False, True, 1), "4 weights, but num_layers is 3"),
        (("GRU", 0, False, True, 1), "num_layers is 0"),
        (("GRU", -1, False, True, 1), "num_layers is -1"),
        (("GRU", 10**12, False, True, 1), "num_layers is 1000000000000"),
        (("GRU", 1, True, True, 1), "weight_ih_l0_reverse has shape"),
        (("GRU", 1, False, True, -1), "num_threads is -1, wanted 0 to"),
        (("GRU", 1, False, True, 10**12), "num_threads is 1000000000000, wanted"),
        (("GRU", 1, False, True, 1, "float8"), "weight_dtype is 'float8'"),
    ):
        with pytest.raises(ValueError, match=message):
            run_operator(x, None, None, None, weights, *options)


def test_other_models_are_compiled_as_before():
    """PyTorch's own modules with a break of the graph, not step by step."""
    x = torch.randn(20, 2, 3)
    option = torch._dynamo.config.allow_rnn
    torch.compile(accelerate(nn.GRU(3, 4)), fullgraph=True, backend="eager")(x)
    assert torch._dynamo.config.allow_rnn is option is False
    plain = nn.Sequential(nn.Linear(3, 3), nn.GRU(3, 4))
    nodes = []

    def backend(graph, inputs):
        nodes.extend(node for node in graph.graph.nodes if node.op.startswith("call"))
        return graph.forward

    assert_close(torch.compile(plain, backend=backend)(x), plain(x))
    assert len(nodes) < 5  # of 20 steps
    with pytest.raises(RuntimeError, match="RNN, GRU, or LSTM"):
        torch.compile(plain, fullgraph=True, backend="eager")(x)


class Asking(nn.Module):
    """A model that looks at the class of its layer."""

    def __init__(self, kind):
        super().__init__()
        self.rnn = kind(3, 4)

    def forward(self, x):
        y, last = self.rnn(x)
        return last[1] if isinstance(self.rnn, nn.LSTM) else last if isinstance(self.rnn, nn.RNNBase) else y


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_compiled_models_see_the_class(kind):
    model = Asking(kind)
    x = torch.randn(5, 2, 3)
    assert_close(torch.compile(accelerate(model), fullgraph=True, backend="eager")(x), model(x))


class Named(nn.LSTM):
    """A subclass without a forward of its own."""


def test_compiled_subclasses_break_the_graph():
    model = nn.Sequential(nn.Linear(3, 3), Named(3, 4))
    fast = accelerate(model)
    x = torch.randn(5, 2, 3)
    assert_close(torch.compile(fast, backend="eager")(x), model(x))


def test_copies_of_compiled_models():
    model = Model(nn.GRU)
    compiled = torch.compile(accelerate(model), backend="eager")
    x = torch.randn(2, 5, 3)
    assert_close(copy.deepcopy(compiled)(x), model(x))
    assert fastrnn.torch.accelerate is accelerate
