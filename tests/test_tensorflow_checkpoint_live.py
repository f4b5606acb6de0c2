"""TensorFlow 1 checkpoints read by TensorFlow itself, and ones that it saves now: the extra `oracle`."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="needs TensorFlow: pip install -e '.[oracle]'")

from checkpoint_cases import (
    BY_NAME,
    GRAPHS,
    OLD,
    TRAINED,
    Graph,
    layer_states,
    leaf_scopes,
    named,
    raw_reader,
    run_layer,
    run_nn,
)
from live_checkpoints import build_graph, tf, v1
from live_tensorflow import rnn_cell_impl
from tensorflow_cases import INPUT_SIZE, assert_same, random_cell

from fastrnn import load, nn
from fastrnn.files import tensorflow_file
from fastrnn.files.tensorflow_index import read_index

REFUSED = (ValueError, TypeError, OSError, NotImplementedError)


def save(session, prefix):
    v1.train.Saver().save(session, str(prefix), write_meta_graph=False, write_state=False)
    return str(prefix)


@pytest.mark.parametrize("prefix", [GRAPHS, TRAINED, OLD])
def test_the_table_and_the_arrays_are_tensorflows(prefix):
    reader, read, raw = tf.train.load_checkpoint(prefix), tensorflow_file.reader_of(prefix), raw_reader(prefix)
    shapes, types = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
    table = tensorflow_file.variables_of(prefix)
    assert {name: list(found.shape) for name, found in table.items()} == shapes
    for name, found in table.items():
        array = read(name)
        assert types[name].name.replace("half", "float16") == array.dtype.name == found.dtype
        if name != "sliced/rnn/lstm_cell/kernel" and found.dtype != "bfloat16":
            np.testing.assert_array_equal(array, raw(name))


def test_variables_in_slices_and_in_half_precision():
    spec = tensorflow_file.read(GRAPHS, scope="sliced", forget_bias=0.0)
    whole = np.arange(15 * 8, dtype="f4").reshape(15, 8)
    np.testing.assert_array_equal(spec.cells[0].weight_ih[:2], whole[:13, :2].T)
    spec = tensorflow_file.read(GRAPHS, scope="half")
    assert spec.cells[0].weight_ih.dtype == np.float32
    np.testing.assert_array_equal(spec.cells[0].weight_hh[:4], whole[1:3, :4].T / 64)
    cell = nn.rnn_cell.GRUCell(2, weights=nn.Checkpoint(GRAPHS).scope("half/rnn"))
    np.testing.assert_array_equal(cell.spec.cells[0].weight_hh, spec.cells[0].weight_hh)


def test_load():
    layer = load(GRAPHS, scope="twins", forget_bias=1.0, batch_first=False)
    assert (type(layer).__name__, layer.bidirectional, layer.batch_first) == ("LSTM", True, False)
    assert type(load(Path(TRAINED), forget_bias=1.0)).__name__ == "LSTM"
    with pytest.raises(ValueError, match=r"forget_bias is missing.*1\.0"):
        load(TRAINED)
    with pytest.raises(ValueError, match="prefix is given, but"):
        load(TRAINED, prefix="rnn")


@pytest.mark.parametrize("name", ["twins", "stack", "multi_nested", "lstm_float64"])
def test_cells_of_nn(monkeypatch, name):
    graph = BY_NAME[name]
    outputs, states = run_nn(graph, nn.Checkpoint(GRAPHS).scope)
    monkeypatch.setattr(nn.checkpoint, "reader_of", raw_reader)
    wanted = named(*run_nn(graph, nn.Checkpoint(GRAPHS).scope))
    assert_same(named(outputs, states), wanted, tolerance=0)


def test_data_that_is_damaged(tmp_path):
    """Every byte of a variable is under TensorFlow's checksum."""
    prefix = str(tmp_path / "model.ckpt")
    data = bytearray(Path(f"{OLD}.data-00000-of-00001").read_bytes())
    Path(f"{prefix}.index").write_bytes(Path(f"{OLD}.index").read_bytes())
    spans = [(e.offset, e.offset + e.size) for name, e in read_index(OLD).items() if name.startswith("gru/")]
    for at in [at for start, end in spans for at in range(start, end, 37)]:
        data[at] ^= 1
        Path(f"{prefix}.data-00000-of-00001").write_bytes(data)
        with pytest.raises(ValueError, match=r"model.ckpt is damaged: TensorFlow cannot read gru/"):
            tensorflow_file.read(prefix, scope="gru")
        data[at] ^= 1
    Path(f"{prefix}.data-00000-of-00001").write_bytes(data)
    assert tensorflow_file.read(prefix, scope="gru").kind == "gru"


def test_an_index_that_is_damaged(tmp_path):
    """What is not refused before is under TensorFlow's checksums, or does not matter."""
    prefix = str(tmp_path / "model.ckpt")
    index = Path(f"{OLD}.index").read_bytes()
    Path(f"{prefix}.data-00000-of-00001").write_bytes(Path(f"{OLD}.data-00000-of-00001").read_bytes())
    whole = tensorflow_file.read(OLD, scope="gru").cells[0]
    passed = 0
    for at in range(len(index)):
        Path(f"{prefix}.index").write_bytes(index[:at] + bytes([index[at] ^ 4]) + index[at + 1 :])
        try:
            cell = tensorflow_file.read(prefix, scope="gru").cells[0]
        except REFUSED:
            continue
        passed += 1
        np.testing.assert_array_equal(cell.weight_ih, whole.weight_ih)
        np.testing.assert_array_equal(cell.bias_ih, whole.bias_ih)
    assert passed < 60  # of the padding at the end, and the block that TensorFlow does not look at


def test_checkpoints_of_objects(tmp_path):
    with tf.Graph().as_default(), v1.Session() as session:
        variable = tf.Variable(1.0)
        session.run(variable.initializer)
        prefix = v1.train.Checkpoint(variable=variable).save(str(tmp_path / "objects"), session)
    with pytest.raises(NotImplementedError, match=r"tf.train.Checkpoint"):
        tensorflow_file.read(prefix)


def test_names_of_static_drivers(tmp_path):
    """They are those of the dynamic ones; a scope that the program gives takes the driver's place."""
    with tf.Graph().as_default(), v1.Session() as session:
        steps = [tf.zeros((2, INPUT_SIZE))] * 2
        lstm, gru = rnn_cell_impl.BasicLSTMCell, rnn_cell_impl.GRUCell
        with v1.variable_scope("a"):
            v1.nn.static_rnn(lstm(3), steps, dtype=tf.float32)
        v1.nn.static_bidirectional_rnn(gru(3), gru(3), steps, dtype=tf.float32, scope="encoder")
        v1.nn.dynamic_rnn(rnn_cell_impl.MultiRNNCell([gru(2), gru(2)]), tf.stack(steps), dtype=tf.float32, scope="top")
        session.run(v1.global_variables_initializer())
        prefix = save(session, tmp_path / "static")
    assert tensorflow_file.read(prefix, scope="a", forget_bias=1.0).hidden_size == 3
    assert tensorflow_file.read(prefix, scope="encoder").bidirectional
    assert tensorflow_file.read(prefix, scope="top").num_layers == 2
    with pytest.raises(ValueError, match=r"3 recurrent layers.*scope='a/rnn'.*scope='encoder'.*scope='top'"):
        tensorflow_file.read(prefix)


@pytest.mark.parametrize("seed", range(8))
def test_checkpoints_of_random_cells(rng, tmp_path, seed):
    """Saved now, after a step of training, and run by fastrnn.nn, and by the layer where the cells are one."""
    made = random_cell(rng, INPUT_SIZE)
    while any(leaf.name == "OwnCell" for leaf, _ in leaf_scopes(made, "")):
        made = random_cell(rng, INPUT_SIZE)
    graph = Graph(f"seed_{seed}", "one", (made,))
    with tf.Graph().as_default(), v1.Session() as session:
        outputs, states = build_graph(graph, session)
        v1.train.get_or_create_global_step()
        loss = tf.add_n([tf.reduce_sum(variable) for variable in v1.trainable_variables()])
        v1.train.AdamOptimizer().minimize(loss)
        before = {variable.op.name for variable in v1.trainable_variables()}
        session.run(v1.variables_initializer([v for v in v1.global_variables() if v.op.name not in before]))
        answers, last = session.run((outputs, states))
        prefix = save(session, tmp_path / "model")
    variables = nn.Checkpoint(prefix)
    assert set(variables) == before
    assert_same(named(*run_nn(graph, variables.scope)), named(answers, last))
    plain = [
        leaf.options.keys() <= {"forget_bias", "state_is_tuple", "num_proj", "use_peepholes"}
        for leaf, _ in leaf_scopes(made, "")
    ]
    if made.cells or not all(plain):
        return
    options = {"LSTM": {"forget_bias": made.options.get("forget_bias", 1.0)}, "RNN": {"nonlinearity": "tanh"}}
    kind = "LSTM" if "LSTM" in made.name else "RNN" if "RNN" in made.name else "GRU"
    spec = tensorflow_file.read(prefix, **options.get(kind, {}))
    assert_same(named(*run_layer(graph, spec)), named(answers, layer_states(graph, spec, last)))
