"""TensorFlow 1 checkpoints: their cells by name, against stored answers; what does not fit. Without TensorFlow."""

import tracemalloc

import numpy as np
import pytest
from checkpoint_cases import (
    BY_NAME,
    FOLDER,
    GOLDEN,
    GRAPHS,
    LIST,
    LOADED,
    OLD,
    TRAINED,
    layer_states,
    named,
    raw_reader,
    run_layer,
    run_nn,
    state_size,
)
from tensorflow_cases import LENGTHS, assert_same

from fastrnn import nn
from fastrnn.files import tensorflow_file
from fastrnn.files.tensorflow_file import variables_of
from fastrnn.importers.tensorflow_checkpoint import Variable, find_groups, spec_from_checkpoint, without_slots
from fastrnn.layers import LAYERS
from fastrnn.nn.structure import map_structure


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN / "checkpoints.npz") as archive:
        return dict(archive)


@pytest.fixture(scope="module")
def reader():
    return raw_reader(GRAPHS)


@pytest.fixture
def without_tensorflow(monkeypatch):
    """Reads the stored checkpoints' bytes where TensorFlow would."""
    monkeypatch.setattr(nn.checkpoint, "reader_of", raw_reader)


def wanted(golden, name):
    return {path.partition(" ")[2]: array for path, array in golden.items() if path.split()[0] == name}


def states_of(golden, graph):
    """TensorFlow's last states, in the containers that its cells have."""
    arrays = iter([array for path, array in wanted(golden, graph.name).items() if not path.startswith("outputs")])
    return [map_structure(lambda _: next(arrays), state_size(made)) for made in graph.cells]


def layer_spec(name, reader, **more):
    graph = BY_NAME[name]
    return spec_from_checkpoint(GRAPHS, variables_of(GRAPHS), reader, scope=name, **graph.options, **more)


@pytest.mark.parametrize("graph", LOADED, ids=lambda graph: graph.name)
def test_load(golden, reader, graph):
    """The layer has TensorFlow's outputs and states."""
    spec = layer_spec(graph.name, reader)
    y, states = run_layer(graph, spec)
    answers = wanted(golden, graph.name)
    theirs = layer_states(graph, spec, states_of(golden, graph))
    assert_same(named(y, states), named(answers["outputs"], theirs))


@pytest.mark.parametrize("graph", LIST, ids=lambda graph: graph.name)
def test_cells_of_nn(golden, without_tensorflow, graph):
    """Every cell takes the checkpoint, under the scope that the program had, as its weights."""
    variables = nn.Checkpoint(GRAPHS)
    assert_same(named(*run_nn(graph, variables.scope)), wanted(golden, graph.name))


@pytest.mark.parametrize("way", ["fw", "bw"])
def test_one_direction(golden, reader, way):
    """The backward one gives a layer that runs backward, with outputs in their order."""
    graph = BY_NAME["twins"]
    options = {"scope": f"twins/bidirectional_rnn/{way}/", "forget_bias": 1.0}
    spec = spec_from_checkpoint(GRAPHS, variables_of(GRAPHS), reader, **options)
    assert spec.reverse == (way == "bw") and not spec.bidirectional
    index = ("fw", "bw").index(way)
    x, starts = graph.draw([state_size(made) for made in graph.cells])
    y, (h, c) = LAYERS["lstm"](spec)(x, (starts[index].h[None], starts[index].c[None]), lengths=LENGTHS)
    answers = wanted(golden, "twins")
    theirs = states_of(golden, graph)[index]
    assert_same(named(y, [c[0], h[0]]), named(np.split(answers["outputs"], 2, axis=2)[index], list(theirs)))


@pytest.mark.parametrize("way", ["fw", "bw"])
def test_one_direction_of_stacks(reader, way):
    """Stacks in both directions are two layers; each can be chosen."""
    with pytest.raises(ValueError, match="scope='both_multi/bidirectional_rnn/fw/multi_rnn_cell'"):
        spec_from_checkpoint(GRAPHS, variables_of(GRAPHS), reader, scope="both_multi")
    scope = f"both_multi/bidirectional_rnn/{way}"
    spec = spec_from_checkpoint(GRAPHS, variables_of(GRAPHS), reader, scope=scope)
    assert (spec.num_layers, spec.reverse) == (2, way == "bw")


def test_one_cell_of_a_stack(reader):
    """Any cell can be chosen, also where the others are of other kinds and sizes."""
    table = variables_of(GRAPHS)
    spec = spec_from_checkpoint(GRAPHS, table, reader, scope="multi_mixed/rnn/multi_rnn_cell/cell_1")
    assert (spec.kind, spec.input_size, spec.hidden_size) == ("gru", 4, 7)
    scope = "stack/stack_bidirectional_rnn/cell_1"
    spec = spec_from_checkpoint(GRAPHS, table, reader, scope=scope, forget_bias=1.0)
    assert (spec.kind, spec.input_size, spec.bidirectional, spec.num_layers) == ("lstm", 6, True, 1)
    scope = "multi_nested/rnn/multi_rnn_cell/cell_0"
    assert spec_from_checkpoint(GRAPHS, table, reader, scope=scope).num_layers == 2


@pytest.mark.parametrize("batch_first", [True, False])
def test_a_trained_layer_needs_no_scope(golden, batch_first):
    """Slots of optimisers, averages and counters are skipped."""
    table = variables_of(TRAINED)
    assert len(table) > 5 * len(without_slots(table)) and len(without_slots(table)) == 6
    spec = spec_from_checkpoint(TRAINED, table, raw_reader(TRAINED), forget_bias=1.0, batch_first=batch_first)
    same = layer_spec("multi_lstm", raw_reader(GRAPHS), batch_first=batch_first)
    assert spec.batch_first == batch_first
    for ours, theirs in zip(spec.cells, same.cells, strict=True):
        np.testing.assert_array_equal(ours.weight_ih, theirs.weight_ih)
        np.testing.assert_array_equal(ours.bias_ih, theirs.bias_ih)


@pytest.mark.parametrize("name", ["lstm_projected", "gru", "basic_lstm"])
def test_names_before_1_2(golden, monkeypatch, name):
    """weights and biases of 1.0, and Linear/Matrix of 0.x, for `load` and for cells."""
    assert not any(known.endswith(("kernel", "bias")) for known in variables_of(OLD))
    graph = BY_NAME[name]
    old = spec_from_checkpoint(OLD, variables_of(OLD), raw_reader(OLD), scope=name, **graph.options)
    new = layer_spec(name, raw_reader(GRAPHS))
    for part in ("weight_ih", "weight_hh", "bias_ih", "weight_hr", "peephole"):
        np.testing.assert_array_equal(getattr(old.cells[0], part), getattr(new.cells[0], part))
    monkeypatch.setattr(nn.checkpoint, "reader_of", raw_reader)
    assert_same(named(*run_nn(graph, lambda _: nn.Checkpoint(OLD).scope(name))), wanted(golden, name))


def test_a_checkpoint_in_slices_and_half_precision_by_its_table():
    table = variables_of(GRAPHS)
    assert table["sliced/rnn/lstm_cell/kernel"] == Variable((15, 8), "float32")
    assert table["half/rnn/gru_cell/gates/kernel"] == Variable((3, 4), "bfloat16")
    assert not any("part_" in name or "\0" in name for name in table)


# What does not fit.


def failing(variables, read=None, **options):
    """The message with which a checkpoint of these shapes or arrays is refused."""
    table = {
        name: value if isinstance(value, Variable) else Variable(tuple(value), "float32")
        for name, value in variables.items()
    }
    with pytest.raises(ValueError) as caught:
        spec_from_checkpoint("model.ckpt", table, read or not_read, **options)
    return str(caught.value)


def not_read(name):
    raise AssertionError(f"{name} was read")


def lstm(scope, inputs=3, units=2):
    return {f"{scope}/kernel": (inputs + units, 4 * units), f"{scope}/bias": (4 * units,)}


def gru(scope, inputs=3, units=2):
    rows = inputs + units
    gates = {f"{scope}/gates/kernel": (rows, 2 * units), f"{scope}/gates/bias": (2 * units,)}
    return gates | {f"{scope}/candidate/kernel": (rows, units), f"{scope}/candidate/bias": (units,)}


def test_several_layers_are_listed():
    message = failing(lstm("a/rnn/lstm_cell") | gru("b/rnn/gru_cell") | lstm("c/fw/lstm_cell") | lstm("c/bw/lstm_cell"))
    assert "model.ckpt has 3 recurrent layers, wanted scope= to choose: " in message
    assert "scope='a/rnn': LSTM of 3 inputs, 2 units; scope='b/rnn': GRU of 3 inputs, 2 units; " in message
    assert message.endswith("scope='c': LSTM of 3 inputs, 2 units, both directions")
    assert "no recurrent cell under scope 'd', but scope='a/rnn'" in failing(lstm("a/rnn/lstm_cell"), scope="d")
    assert "under scope 'a/rn'" in failing(lstm("a/rnn/lstm_cell"), scope="a/rn")


def test_a_long_list_is_cut():
    message = failing({name: shape for k in range(1000) for name, shape in lstm(f"s{k}/rnn/lstm_cell").items()})
    assert "has 1000 recurrent layers" in message and message.endswith("; and 980 more") and len(message) < 3000


def test_two_cells_in_one_scope_are_two_layers():
    message = failing(lstm("decoder/lstm_cell") | lstm("decoder/lstm_cell_1"))
    assert "scope='decoder/lstm_cell': " in message and "scope='decoder/lstm_cell_1': " in message
    arrays = {name: np.zeros(shape, "f4") for name, shape in lstm("decoder/lstm_cell_1").items()}
    table = {
        name: Variable(shape, "float32")
        for name, shape in (lstm("decoder/lstm_cell") | lstm("decoder/lstm_cell_1")).items()
    }
    spec = spec_from_checkpoint("", table, arrays.__getitem__, scope="decoder/lstm_cell_1", forget_bias=0)
    assert spec.hidden_size == 2


def test_forget_bias_is_required():
    for scope in ("rnn/lstm_cell", "rnn/basic_lstm_cell"):
        assert "forget_bias is missing" in failing(lstm(scope)) and "TensorFlow's default is 1.0" in failing(
            lstm(scope)
        )
    assert "forget_bias is 1.0, but only an LSTM has one" in failing(gru("rnn/gru_cell"), forget_bias=1.0)
    message = failing(lstm("rnn/cudnn_compatible_lstm_cell"), forget_bias=1.0)
    assert "forget_bias is 1.0, but rnn is of cuDNN's kind, which has none: wanted 0.0" in message


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"forget_bias": "1"}, TypeError),
        ({"forget_bias": True}, TypeError),
        ({"forget_bias": np.nan}, ValueError),
        ({"forget_bias": 1.0, "nonlinearity": "tanh"}, ValueError),
        ({"forget_bias": 1.0, "batch_first": 1}, TypeError),
        ({"forget_bias": 1.0, "scope": 1}, TypeError),
    ],
)
def test_options(options, error):
    table = {name: Variable(shape, "float32") for name, shape in lstm("rnn/lstm_cell").items()}
    with pytest.raises(error, match=next(name for name in reversed(options))):
        spec_from_checkpoint("model.ckpt", table, not_read, **options)


def test_nonlinearity_is_required():
    rnn = {"rnn/basic_rnn_cell/kernel": (5, 2), "rnn/basic_rnn_cell/bias": (2,)}
    assert "nonlinearity is missing, wanted 'tanh' (TensorFlow's default) or 'relu'" in failing(rnn)
    assert "nonlinearity is 'sigmoid', wanted 'tanh' or 'relu'" in failing(rnn, nonlinearity="sigmoid")
    assert "forget_bias is 1.0, but only an LSTM" in failing(rnn, nonlinearity="relu", forget_bias=1.0)


def test_a_name_of_its_own_does_not_tell_the_kind():
    """The options do, and only if the cell is at a place where a driver puts one, or is named by scope."""
    named = lstm("rnn/reader")
    assert "rnn/reader has a name that does not tell the cell's kind: pass forget_bias=" in failing(named)
    dense = {"model/dense/kernel": (5, 8), "model/dense/bias": (8,)}
    assert "has no recurrent cell of TensorFlow 1: it has model/dense/bias" in failing(dense, forget_bias=1.0)
    arrays = {name: np.ones(shape, "f4") for name, shape in dense.items()}
    table = {name: Variable(shape, "float32") for name, shape in dense.items()}
    options = {"scope": "model/dense", "forget_bias": 1.0}
    assert spec_from_checkpoint("", table, arrays.__getitem__, **options).kind == "lstm"


def test_every_fault_is_in_the_message():
    message = failing(
        {
            "rnn/lstm_cell/kernel": (5, 8),
            "rnn/lstm_cell/bias": (4,),
            "rnn/lstm_cell/w_i_diag": Variable((3,), "int32"),
            "rnn/lstm_cell/transform/gamma": (2,),
        }
    )
    for part in (
        "rnn/lstm_cell/bias has shape (4,), wanted (8,)",
        "rnn/lstm_cell/w_i_diag is int32, wanted float16, bfloat16, float32, float64",
        "rnn/lstm_cell/w_i_diag has shape (3,), wanted (2,)",
        "rnn/lstm_cell/w_o_diag is missing, wanted shape (2,)",
        "rnn/lstm_cell/transform/gamma is surplus",
        "forget_bias is missing",
    ):
        assert part in message


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"rnn/carry_w": (2, 2)}, "rnn/carry_w is surplus"),  # HighwayWrapper
        ({"rnn/lstm_cell/projection/bias": (2,)}, "rnn/lstm_cell/projection/bias is surplus"),
        ({"rnn/lstm_cell/W_1": (5, 8)}, "rnn/lstm_cell/W_1 is surplus"),  # of 0.x in shards
        ({"rnn/attention/v": (2,)}, "rnn/attention/v is surplus"),
        ({"rnn/lstm_cell/w_f_diag": (2,)}, "rnn/lstm_cell/w_o_diag is missing"),
        ({"rnn/lstm_cell/gates/kernel": (5, 4)}, "rnn/lstm_cell/gates/kernel is surplus"),
    ],
)
def test_what_belongs_to_no_cell_is_not_passed_over(more, reason):
    assert reason in failing(lstm("rnn/lstm_cell") | more, forget_bias=1.0)


@pytest.mark.parametrize(
    "name", ["layer_norm_basic_lstm_cell", "ugrnn_cell", "nas_rnn", "coupled_input_forget_gate_lstm_cell"]
)
def test_other_cells_are_refused_by_name(name):
    assert f"rnn/{name} is a {name}, which is not read" in failing(lstm(f"rnn/{name}"), forget_bias=1.0)


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        (lstm("rnn/multi_rnn_cell/cell_1/lstm_cell"), "rnn has no cell that is read at cell_0"),
        (
            lstm("rnn/multi_rnn_cell/cell_0/lstm_cell") | lstm("rnn/multi_rnn_cell/cell_2/lstm_cell", 2),
            "rnn has no cell that is read at cell_1",
        ),
        (
            lstm("rnn/multi_rnn_cell/cell_0/lstm_cell") | lstm("rnn/multi_rnn_cell/cell_1/lstm_cell", 2, 3),
            "rnn has cells of 2 sizes, 2 units and 2 outputs, 3 units and 3 outputs: run them by fastrnn.nn",
        ),
        (
            lstm("rnn/multi_rnn_cell/cell_0/lstm_cell") | lstm("rnn/multi_rnn_cell/cell_1/lstm_cell", 3),
            "rnn/multi_rnn_cell/cell_1/lstm_cell takes 3 inputs, but 2 come from what is before it",
        ),
        (
            lstm("rnn/multi_rnn_cell/cell_0/lstm_cell") | gru("rnn/multi_rnn_cell/cell_1/gru_cell", 2),
            "rnn has cells of different kinds, lstm_cell, gru_cell: run them by fastrnn.nn",
        ),
        (
            lstm("bidirectional_rnn/fw/lstm_cell") | lstm("bidirectional_rnn/bw/lstm_cell", 4),
            "bidirectional_rnn/bw/lstm_cell takes 4 inputs, but 3 come",
        ),
        (
            lstm("s/stack_bidirectional_rnn/cell_0/bidirectional_rnn/fw/lstm_cell")
            | lstm("s/stack_bidirectional_rnn/cell_0/bidirectional_rnn/bw/lstm_cell")
            | lstm("s/stack_bidirectional_rnn/cell_1/bidirectional_rnn/fw/lstm_cell", 4),
            "s/stack_bidirectional_rnn has 3 cells in 2 layers, wanted fw and bw in each",
        ),
    ],
)
def test_cells_that_are_not_one_layer(variables, reason):
    assert reason in failing(variables, forget_bias=1.0)


def test_keras_and_averages_are_recognised():
    assert "lstm/recurrent_kernel looks like a layer of Keras" in failing(
        {"lstm/kernel": (3, 8), "lstm/recurrent_kernel": (2, 8), "lstm/bias": (8,)}
    )
    averages = {f"{name}/ExponentialMovingAverage": shape for name, shape in lstm("rnn/lstm_cell").items()}
    assert "it has averages alone" in failing(averages)


def test_half_precision_is_widened():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    arrays = {
        name: np.linspace(-1, 1, int(np.prod(shape))).reshape(shape).astype(ml_dtypes.bfloat16)
        for name, shape in lstm("rnn/lstm_cell").items()
    }
    table = {name: Variable(array.shape, array.dtype.name) for name, array in arrays.items()}
    cell = spec_from_checkpoint("", table, arrays.__getitem__, forget_bias=0.0).cells[0]
    assert cell.weight_ih.dtype == np.float32
    np.testing.assert_array_equal(cell.weight_ih[0], arrays["rnn/lstm_cell/kernel"][:3, 0].astype("f4"))


def test_a_cell_of_nn_names_its_choices(without_tensorflow):
    variables = nn.Checkpoint(GRAPHS)
    with pytest.raises(ValueError, match=r"has \d+ GRU cells, wanted one: scope='both_multi/"):
        nn.rnn_cell.GRUCell(9, weights=variables)
    with pytest.raises(ValueError, match="has no GRU cells under scope 'lstm', wanted one: scope="):
        nn.rnn_cell.GRUCell(9, weights=variables.scope("lstm"))
    with pytest.raises(ValueError, match="is a CudnnCompatibleGRUCell, not a GRUCell"):
        nn.rnn_cell.GRUCell(5, weights=variables.scope("cudnn_gru/rnn/multi_rnn_cell/cell_0"))
    with pytest.raises(ValueError, match="is a GRUCell, not a CudnnCompatibleGRUCell"):
        nn.rnn_cell.CudnnCompatibleGRUCell(9, weights=variables.scope("gru"))
    with pytest.raises(ValueError, match="w_i_diag is surplus"):
        nn.rnn_cell.LSTMCell(9, weights=variables.scope("lstm_peepholes"))


def test_the_mapping(without_tensorflow):
    """Names without slots, scopes that nest, ":0", arrays when they are asked for."""
    variables = nn.Checkpoint(FOLDER / "graphs.ckpt")
    dense = variables.scope("softmax")
    assert sorted(dense) == ["bias", "kernel"] and len(dense) == 2 and "kernel:0" in dense and "other" not in dense
    np.testing.assert_array_equal(dense["kernel:0"], [[1, 2]])
    np.testing.assert_array_equal(variables["softmax/bias"], [0, 0.5])
    nested = variables.scope("lstm/").scope("/rnn").scope("lstm_cell")
    assert sorted(nested) == ["bias", "kernel"] and repr(nested).endswith(".scope('lstm/rnn/lstm_cell')")
    assert len(variables.scope("")) == len(variables)
    with pytest.raises(KeyError, match="rnn_/"):
        variables.scope("rnn_")
    with pytest.raises(KeyError):
        dense["beta"]
    with pytest.raises(TypeError, match="name is 1"):
        variables.scope(1)
    with pytest.raises(TypeError, match="prefix is b"):
        nn.Checkpoint(b"x")


def test_without_tensorflow_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(tensorflow_file.extras.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"needs the package tensorflow, not installed \(extra 'tensorflow'"):
        tensorflow_file.read(TRAINED, forget_bias=1.0)
    with pytest.raises(ValueError, match="forget_bias is missing"):  # what does not fit is said before
        tensorflow_file.read(TRAINED)


def test_groups_describe_themselves():
    table = variables_of(GRAPHS)
    texts = {group.scope: group.describe(table) for group in find_groups(table)}
    assert texts["lstm_projected/rnn"] == "LSTM of 5 inputs, 9 units, 4 outputs"
    assert texts["multi_lstm/rnn"] == "LSTM of 5 inputs, 6 units, 3 layers"
    assert texts["stack/stack_bidirectional_rnn"] == "LSTM of 5 inputs, 3 units, 2 layers, both directions"
    assert texts["multi_mixed/rnn"].startswith("LSTM of 5 inputs, 4 units, then GRU of 4 inputs, 7 units, then RNN")
    assert texts["gru_named/rnn"] == "GRU of 5 inputs, 3 units"
    assert texts["lstm_named/rnn"] == "reader with bias (12,)"


@pytest.mark.parametrize(
    "variables", [lstm("rnn/lstm_cell", 700, 900), gru("rnn/gru_cell", 700, 900)], ids=["lstm", "gru"]
)
def test_memory(variables):
    """A layer takes at most twice its tensors while it is read, and 4 MB."""
    table = {name: Variable(shape, "float32") for name, shape in variables.items()}
    declared = sum(4 * int(np.prod(shape)) for shape in variables.values())
    assert declared > 16 << 20
    options = {"forget_bias": 1.0} if "rnn/lstm_cell/bias" in table else {}
    tracemalloc.start()
    try:
        spec_from_checkpoint("", table, lambda name: np.zeros(variables[name], "f4"), **options)
        assert tracemalloc.get_traced_memory()[1] < 2 * declared + (4 << 20)
    finally:
        tracemalloc.stop()
