"""Pickles and copies of layers, streams and objects that hold them: the same weights and state, bit for bit."""

import copy
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest
from bits import assert_same_bits
from cases import LAYERS, random_batch, random_options, random_spec

import fastrnn
import fastrnn.keras
import fastrnn.nn
from fastrnn import _core

#: name -> kind, arguments of random_spec
SPECS = {
    "lstm": ("lstm", {}),
    "lstm-no-bias": ("lstm", {"bias": False}),
    "lstm-everything": (
        "lstm",
        {"proj_size": 3, "peephole": True, "cell_clip": 0.5, "gate_clip": 0.6, "coupled": True, "proj_clip": 0.1},
    ),
    "gru": ("gru", {}),
    "gru-reset-before": ("gru", {"linear_before_reset": False}),
    "rnn": ("rnn", {}),
}
ENGINES = [{"backend": "fused", "isa": isa} for isa in _core.available_isas()]
ENGINES += [{"backend": "blas"}, {"backend": "blas", "dtype": np.float64}]


def again(thing, protocol=pickle.HIGHEST_PROTOCOL):
    return pickle.loads(pickle.dumps(thing, protocol))


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: "-".join(map(str, engine.values())))
@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_layer(rng, name, engine, bidirectional):
    kind, options = SPECS[name]
    spec = random_spec(rng, kind, 3, 19, 2, bidirectional, **options)
    layer = LAYERS[kind](spec, **engine)
    x = random_batch(rng, spec, dtype=layer.dtype)
    loaded = again(layer)
    assert type(loaded) is type(layer) and repr(loaded) == repr(layer)
    assert loaded._engine.fingerprint == layer._engine.fingerprint
    assert_same_bits(loaded(x.x, lengths=x.lengths), layer(x.x, lengths=x.lengths))
    with pytest.raises(AttributeError, match="immutable"):
        loaded.batch_first = False


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("seed", range(6))
def test_options_of_their_own_for_each_cell(rng, kind, seed):
    spec = random_options(rng, random_spec(rng, kind, 3, 9, 2, True, 4 if kind == "lstm" and seed % 2 else 0))
    layer = LAYERS[kind](spec)
    batch = random_batch(rng, spec)
    assert_same_bits(
        again(layer)(batch.x, batch.state, lengths=batch.lengths), layer(batch.x, batch.state, lengths=batch.lengths)
    )


def test_a_layer_of_every_protocol(rng):
    layer = LAYERS["gru"](random_spec(rng, "gru", 3, 5))
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert again(layer, protocol)._engine.fingerprint == layer._engine.fingerprint


def test_the_pickle_holds_weights_in_pytorchs_layout(rng):
    spec = random_spec(rng, "gru", 3, 5)
    state = LAYERS["gru"](spec, isa=_core.available_isas()[0]).__getstate__()
    (found,), (given,) = state["_spec"].cells, spec.cells
    assert_same_bits((found.weight_ih, found.weight_hh), (given.weight_ih, given.weight_hh))
    assert_same_bits(found.bias_ih[:10], given.bias_ih[:10] + given.bias_hh[:10])
    assert_same_bits((found.bias_ih[10:], found.bias_hh[10:]), (given.bias_ih[10:], given.bias_hh[10:]))
    assert not found.bias_hh[:10].any()


def test_signs_of_zero_and_nan_keep_the_fingerprint(rng):
    spec = random_spec(rng, "lstm", 3, 5, peephole=True)
    for part in ("weight_ih", "bias_ih", "bias_hh", "peephole"):
        getattr(spec.cells[0], part).flat[:3] = -0.0, np.nan, 1e-44
    layer = LAYERS["lstm"](spec)
    assert again(layer)._engine.fingerprint == layer._engine.fingerprint == again(again(layer))._engine.fingerprint


def test_the_fingerprint_is_the_models_alone(rng):
    """Fingerprints are equal on every instruction set and backend, and differ for any other weight or option."""
    kind, options = SPECS["lstm-everything"]
    spec = random_spec(rng, kind, 3, 5, 2, **options)
    layer = LAYERS[kind](spec)
    wanted = layer._engine.fingerprint
    for engine in ENGINES[:-1]:
        assert LAYERS[kind](spec, **engine)._engine.fingerprint == wanted
    assert LAYERS[kind](spec, **ENGINES[-1])._engine.fingerprint != wanted
    seen = {wanted}
    for i, part in enumerate(("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr", "peephole")):
        array = getattr(spec.cells[1], part).copy()
        array.flat[-1] += i + 1  # by different amounts, because the two biases are added
        other = replace(spec, cells=[spec.cells[0], replace(spec.cells[1], **{part: array})])
        seen.add(LAYERS[kind](other)._engine.fingerprint)
    assert len(seen) == 7
    for change in ({"cell_clip": 0.4}, {"gate_clip": None}, {"coupled": False}, {"proj_clip": 0.2}, {"peephole": None}):
        other = replace(spec, cells=[spec.cells[0], replace(spec.cells[1], **change)])
        seen.add(LAYERS[kind](other)._engine.fingerprint)
    assert len(seen) == 12


def test_copies_of_a_layer_are_the_layer(rng):
    layer = LAYERS["rnn"](random_spec(rng, "rnn", 3, 5))
    assert copy.copy(layer) is layer and copy.deepcopy([layer])[0] is layer


def test_a_named_instruction_set_stays_and_any_other_falls_back(rng, monkeypatch):
    """On a machine without the instruction set a layer uses the best one, unless the caller named one."""
    isas = _core.available_isas()
    if len(isas) < 2:
        pytest.skip("only one instruction set runs here")
    spec = random_spec(rng, "lstm", 3, 5)
    free, named = pickle.dumps(LAYERS["lstm"](spec)), pickle.dumps(LAYERS["lstm"](spec, isa=isas[0]))
    assert pickle.loads(named).isa == isas[0]
    monkeypatch.setenv("FASTRNN_ISA", isas[-1])
    loaded = pickle.loads(free)
    assert loaded.isa == isas[-1]
    assert_same_bits(loaded(np.ones((1, 4, 3), "f4")), LAYERS["lstm"](spec, isa=isas[-1])(np.ones((1, 4, 3), "f4")))
    monkeypatch.setattr(_core, "available_isas", lambda weight_dtype: isas[1:])
    with pytest.raises(ValueError, match="isa"):
        pickle.loads(named)


class Tagged(fastrnn.LSTM):
    """A subclass with a constructor and attributes of its own."""

    def __init__(self, tag, spec):
        self.tag = tag
        super().__init__(spec)


def test_a_subclass(rng):
    layer = Tagged("mine", random_spec(rng, "lstm", 3, 5))
    loaded = again(layer)
    assert type(loaded) is Tagged and loaded.tag == "mine"
    assert_same_bits(loaded(np.ones((1, 4, 3), "f4")), layer(np.ones((1, 4, 3), "f4")))


@pytest.mark.parametrize("way", [again, copy.copy, copy.deepcopy], ids=["pickle", "copy", "deepcopy"])
def test_a_stream_goes_on_by_itself(rng, way):
    spec = random_spec(rng, "lstm", 3, 5, 2)
    layer = LAYERS["lstm"](spec)
    batch = random_batch(rng, spec, (6, 6, 6))
    wanted, last = layer(batch.x, batch.state)
    stream = layer.stream(3)
    stream.state = batch.state
    assert_same_bits(stream.run(batch.x[:, :3]), wanted[:, :3])
    stream.note = ["user's"]
    other = way(stream)
    assert type(other) is type(stream) and other.batch_size == 3 and other.note == ["user's"]
    assert way is again or other._owner is layer
    for one in (other, stream):
        assert_same_bits(one.run(batch.x[:, 3:]), wanted[:, 3:])
        assert_same_bits(one.state, last)
    other.reset()
    assert_same_bits(stream.state, last)


def test_an_unrolled_layer(rng):
    layer = LAYERS["gru"](random_spec(rng, "gru", 3, 5))
    x = np.ones((2, 4, 3), np.float32)
    fixed = layer.unroll(4)
    for other in (again(fixed), copy.copy(fixed), copy.deepcopy(fixed)):
        assert other.num_steps == 4
        assert_same_bits(other(x), fixed(x))


def test_layers_of_the_other_faces(rng):
    x = rng.standard_normal((2, 4, 3)).astype(np.float32)
    weights = [rng.standard_normal(shape).astype("f4") for shape in ((3, 20), (5, 20), (20,))]
    layer = fastrnn.keras.LSTM(5, return_sequences=True, stateful=True, weights=weights)
    both = fastrnn.keras.Bidirectional(fastrnn.keras.LSTM(5, return_sequences=True), weights=weights * 2)
    cell = fastrnn.nn.rnn_cell.LSTMCell(5, weights={"kernel": np.concatenate(weights[:2]), "bias": weights[2]})
    stack = fastrnn.nn.rnn_cell.MultiRNNCell([cell])
    for way in (again, copy.copy, copy.deepcopy):
        layer.reset_state()
        layer(x)
        other = way(layer)
        assert_same_bits(other(x), layer(x))
        assert_same_bits(way(both)(x), both(x))
        for one in (cell, stack):
            wanted = fastrnn.nn.dynamic_rnn(one, x, dtype=np.float32)
            assert_same_bits(fastrnn.nn.dynamic_rnn(way(one), x, dtype=np.float32), wanted)


def run_in_child(stream, x):
    return stream.run(x), stream.state


def test_multiprocessing_spawn(rng):
    layer = LAYERS["lstm"](random_spec(rng, "lstm", 3, 5))
    stream, x = layer.stream(2), rng.standard_normal((2, 4, 3)).astype(np.float32)
    stream.run(x)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.apply(run_in_child, (stream, x))
    assert_same_bits(found, run_in_child(stream, x))


def test_joblib(rng, tmp_path):
    joblib = pytest.importorskip("joblib")
    layer = LAYERS["gru"](random_spec(rng, "gru", 3, 5))
    x = rng.standard_normal((2, 4, 3)).astype(np.float32)
    joblib.dump(layer, tmp_path / "layer")
    for mode in (None, "r"):
        assert_same_bits(joblib.load(tmp_path / "layer", mmap_mode=mode)(x), layer(x))
    assert_same_bits(joblib.Parallel(n_jobs=1)(joblib.delayed(layer)(x) for _ in range(2))[1], layer(x))


def test_another_instruction_set_loads_a_stream(rng, tmp_path):
    isas = _core.available_isas()
    stream = LAYERS["lstm"](random_spec(rng, "lstm", 3, 5, 2)).stream(3)
    x = rng.standard_normal((3, 4, 3)).astype(np.float32)
    stream.run(x)
    state = np.stack(stream.state)
    (tmp_path / "stream").write_bytes(pickle.dumps((stream, state, x)))
    code = """
import pickle, sys, numpy as np
stream, state, x = pickle.load(open(sys.argv[1], "rb"))
assert np.stack(stream.state).tobytes() == state.tobytes()
print(stream._owner.isa)
sys.stdout.flush()
np.save(sys.argv[2], stream.run(x))
"""
    wanted = stream.run(x)
    for isa in isas:
        result = subprocess.run(
            [sys.executable, "-c", code, tmp_path / "stream", tmp_path / "y.npy"],
            env=os.environ | {"FASTRNN_ISA": isa},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (result.stdout.strip(), result.stderr) == (isa, "")
        np.testing.assert_allclose(np.load(tmp_path / "y.npy"), wanted, atol=2e-6)


def test_pickling_while_other_threads_run_the_layer(rng):
    layer = LAYERS["lstm"](random_spec(rng, "lstm", 3, 33, 2))
    x = rng.standard_normal((2, 40, 3)).astype(np.float32)
    wanted, results = layer(x), []
    threads = [threading.Thread(target=lambda: results.extend(layer(x) for _ in range(20))) for _ in range(2)]
    for thread in threads:
        thread.start()
    loaded = [again(layer) for _ in range(5)]
    for thread in threads:
        thread.join()
    for result in [*results, *(other(x) for other in loaded)]:
        assert_same_bits(result, wanted)
