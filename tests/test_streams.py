"""Live streams: steps and runs, states, snapshots, refusals, threads."""

import subprocess
import sys
import sysconfig
import threading
from dataclasses import replace

import numpy as np
import pytest
from bits import MODELS, assert_same_bits, rows_of_state
from cases import LAYERS, random_batch, random_spec

import fastrnn


@pytest.fixture(params=MODELS)
def spec(request, rng):
    kind, options = MODELS[request.param]
    return random_spec(rng, kind, 3, 5, 2, **options)


@pytest.fixture
def layer(spec):
    return LAYERS[spec.kind](spec)


def steps_of(rng, spec, rows, steps=6):
    """x (rows, steps, I) and a state."""
    batch = random_batch(rng, spec, (steps,) * rows)
    return batch.x if rows else np.zeros((0, steps, spec.input_size), np.float32), batch.state


@pytest.mark.parametrize("rows", [0, 1, 5])
def test_steps_and_runs_equal_the_layer(rng, layer, spec, rows):
    x, state = steps_of(rng, spec, rows)
    y, last = layer(x, state)
    stream = layer.stream(rows)
    assert stream.batch_size == rows
    stream.state = state
    stepped = [stream.step(x[:, t]) for t in range(3)]
    assert all(step.shape == (rows, layer.output_size) for step in stepped)
    rest = stream.run(x[:, 3:])
    assert_same_bits(np.concatenate([np.stack(stepped, 1), rest], 1), y)
    assert_same_bits(stream.state, last)


def test_a_new_stream_is_zero_and_reset_returns_there(rng, layer, spec):
    x, _ = steps_of(rng, spec, 2)
    stream = layer.stream(2)
    zeros = stream.state
    assert not any(np.any(part) for part in (zeros if spec.kind == "lstm" else (zeros,)))
    wanted = stream.run(x)
    stream.reset()
    assert_same_bits(stream.state, zeros)
    assert_same_bits(stream.run(x), wanted)


def test_state_is_a_copy(rng, layer, spec):
    x, state = steps_of(rng, spec, 2)
    stream = layer.stream(2)
    stream.state = state
    assert_same_bits(stream.state, state)
    assert isinstance(stream.state, fastrnn.State if spec.kind == "lstm" else np.ndarray)
    wanted = layer(x, state)[0]
    for part in (*stream.state, *state) if spec.kind == "lstm" else (stream.state, state):
        part[...] = np.nan
    assert_same_bits(stream.run(x), wanted)


def test_none_as_state_is_zero(rng, layer, spec):
    stream = layer.stream(2)
    _, stream.state = steps_of(rng, spec, 2)
    stream.state = None
    assert_same_bits(stream.state, layer.stream(2).state)


def test_a_state_continues_in_a_layer_and_back(rng, layer, spec):
    x, _ = steps_of(rng, spec, 2)
    stream = layer.stream(2)
    wanted, last = layer(x)
    stream.run(x[:, :2])
    y, stream.state = layer(x[:, 2:4], stream.state)
    assert_same_bits(y, wanted[:, 2:4])
    assert_same_bits(stream.run(x[:, 4:]), wanted[:, 4:])
    assert_same_bits(stream.state, last)


@pytest.mark.parametrize("cut", range(4))
def test_snapshot_and_restore(rng, layer, spec, cut):
    x, _ = steps_of(rng, spec, 2)
    stream = layer.stream(2)
    stream.run(x[:, :cut])
    snapshot, state = stream.snapshot(), stream.state
    assert isinstance(snapshot, bytes)
    wanted = stream.run(x[:, cut:])
    for other in (stream, layer.stream(2), LAYERS[spec.kind](spec).stream(2)):
        other.restore(snapshot)
        assert_same_bits(other.state, state)
        assert_same_bits(other.run(x[:, cut:]), wanted)
    stream.restore(snapshot)
    assert stream.snapshot() == snapshot


@pytest.mark.parametrize("bad", [b"", b"short", None, "text", 3])
def test_a_bad_snapshot_is_refused(layer, bad):
    stream = layer.stream()
    before = stream.snapshot()
    with pytest.raises((TypeError, ValueError), match="snapshot"):
        stream.restore(bad)
    with pytest.raises(ValueError, match="snapshot"):
        stream.restore(layer.stream(100).snapshot())
    assert stream.snapshot() == before


@pytest.mark.parametrize("byte", [0, 1, 0x7F, 0xFF])
def test_a_forged_snapshot_does_no_harm(layer, byte):
    stream = layer.stream(5)
    size = len(stream.snapshot())
    try:
        stream.restore(bytes([byte]) * size)
    except ValueError as error:
        assert "snapshot" in str(error)
    stream.run(np.zeros((5, 3, 3), np.float32))
    stream.reset()
    x = np.ones((5, 2, 3), np.float32)
    assert_same_bits(stream.run(x), layer(x)[0])


def test_a_snapshot_of_another_model_is_refused(rng, layer, spec):
    other = random_spec(rng, spec.kind, 3, 5, 2)
    stream = LAYERS[spec.kind](replace(spec, cells=[replace(c, gate_clip=0.5) for c in spec.cells])).stream(2)
    before = layer.stream(2).snapshot()
    snapshots = {"options or weights": stream.snapshot(), "rows": layer.stream(3).snapshot()}
    if not spec.proj_size:
        snapshots["fingerprint"] = LAYERS[spec.kind](other).stream(2).snapshot()
    stream = layer.stream(2)
    for message, snapshot in snapshots.items():
        with pytest.raises(ValueError, match=f"snapshot is of .*{message}"):
            stream.restore(snapshot)
    with pytest.raises(ValueError, match="format version 2, wanted 1"):
        stream.restore(before[:8] + b"\2" + before[9:])
    for bad in (before[:-1], before + b"\0"):
        with pytest.raises(ValueError, match=rf"snapshot has {len(bad)} bytes, wanted {len(before)}"):
            stream.restore(bad)
    for bad in (before[:31], b"\0" * len(before), b"fastrnns" + before[8:]):
        with pytest.raises(ValueError, match="and not a snapshot"):
            stream.restore(bad)
    assert stream.snapshot() == before


def test_a_snapshot_is_pytorchs_layout_on_every_instruction_set(rng, spec):
    """Magic number, version, size of a number, fingerprint, rows; then h (L, B, P) and c (L, B, H)."""
    layers = [LAYERS[spec.kind](spec, isa=isa) for isa in fastrnn.info()["isas"]]
    layers.append(LAYERS[spec.kind](spec, backend="blas"))
    _, state = steps_of(rng, spec, 3)
    parts = state if spec.kind == "lstm" else (state,)
    arrays = b"".join(np.ascontiguousarray(part, "<f4").tobytes() for part in parts)
    for layer in layers:
        stream = layer.stream(3)
        stream.run(np.ones((3, 1, 3), np.float32))  # so that h is in the other buffer
        stream.state = state
        header = (
            b"FASTRNNS"
            + np.array([1, 4], "<u4").tobytes()
            + np.array([layer._engine.fingerprint, 3, 0], "<u8").tobytes()
        )
        assert stream.snapshot() == header + arrays
        for other in layers:
            restored = other.stream(3)
            restored.restore(header + arrays)
            assert_same_bits(restored.state, state)


@pytest.mark.parametrize("threads", [1, 2])
def test_named_rows_are_streams_of_their_own(rng, layer, spec, threads):
    """In any order and chunks, rows have the bits of separate streams, and the states of other rows do not change."""
    rows, before = 5, fastrnn.get_num_threads()
    x, state = steps_of(rng, spec, rows, 12)
    stream, alone = layer.stream(rows), [layer.stream() for _ in range(rows)]
    stream.state = state
    for row, one in enumerate(alone):
        one.state = rows_of_state(state, [row])
    taken = np.zeros(rows, int)
    try:
        fastrnn.set_num_threads(threads)
        for turn in range(30):
            named = rng.permutation(rows)[: rng.integers(0, rows + 1)]
            named = named[taken[named] < 12]
            if turn % 5 == 4:
                stream.reset(rows=named)
                for row in named:
                    alone[row].reset()
            elif turn % 2:
                now = np.stack([x[row, taken[row]] for row in named]) if len(named) else np.zeros((0, 3), "f4")
                found = stream.step(now, rows=named.astype(np.uint8) if turn % 3 else named.tolist())
                wanted = [alone[row].step(x[row : row + 1, taken[row]]) for row in named]
                taken[named] += 1
            else:
                steps = min([2, *(12 - taken[named])])
                now = np.array([x[row, taken[row] : taken[row] + steps] for row in named], "f4").reshape(-1, steps, 3)
                found = stream.run(now, rows=named)
                wanted = [alone[row].run(now[i : i + 1]) for i, row in enumerate(named)]
                taken[named] += steps
            if turn % 5 != 4:
                assert found.shape[0] == len(named)
                for i, one in enumerate(wanted):
                    assert_same_bits(found[i : i + 1], one)
            for row, one in enumerate(alone):
                assert_same_bits(rows_of_state(stream.state, [row]), one.state)
            if turn % 7 == 6:  # steps of all rows in between
                now = rng.standard_normal((rows, 3)).astype(np.float32)
                assert_same_bits(stream.step(now), np.concatenate([alone[i].step(now[i : i + 1]) for i in range(rows)]))
    finally:
        fastrnn.set_num_threads(before)
    assert taken.sum() > 20


def test_bad_rows_are_refused_by_name(rng, layer, spec):
    x, state = steps_of(rng, spec, 3)
    stream = layer.stream(3)
    stream.state = state
    before = stream.snapshot()
    for bad, error, message in (
        ([0, 3], ValueError, r"rows\[1\] is 3, but the stream has 3 rows"),
        ([-1, 0], ValueError, r"rows\[0\] is -1"),
        (np.array([2**64 - 1, 0], np.uint64), ValueError, rf"rows\[0\] is {2**64 - 1}"),
        ([2, 2], ValueError, "rows names row 2 twice"),
        ([0.0, 1.0], TypeError, "rows is of type float64, wanted integers"),
        ([True, False], TypeError, "rows is of type bool"),
        ([[0], [1]], ValueError, r"rows has shape \(2, 1\)"),
        (1, ValueError, r"rows has shape \(\)"),
        ({0, 1}, TypeError, "rows is set, wanted a list or array of integers"),
        ("text", (TypeError, ValueError), "rows"),
    ):
        for call in (
            lambda bad=bad: stream.step(x[:2, 0], rows=bad),
            lambda bad=bad: stream.run(x[:2], rows=bad),
            lambda bad=bad: stream.reset(rows=bad),
        ):
            with pytest.raises(error, match=message):
                call()
    for bad in (x[:1, 0], x[:3, 0], x[:2]):
        with pytest.raises(ValueError, match="x has shape"):
            stream.step(bad, rows=[0, 1])
    with pytest.raises(ValueError, match="x has shape"):
        stream.run(x, rows=[0, 1])
    assert stream.snapshot() == before


def test_bad_input_leaves_the_state_unchanged(rng, layer, spec):
    x, state = steps_of(rng, spec, 2)
    stream = layer.stream(2)
    stream.state = state
    before = stream.snapshot()
    for bad, error in (
        (x[:, 0].astype(np.float64), TypeError),
        (x[:1, 0], ValueError),
        (x[:, 0, :2], ValueError),
        (x[0, 0], ValueError),
        (x, ValueError),
        (None, TypeError),
        ("text", TypeError),
    ):
        with pytest.raises(error, match="x "):
            stream.step(bad)
    for bad, error in (
        (x.astype(np.float64), TypeError),
        (x[:1], ValueError),
        (x[..., :2], ValueError),
        (x[:, 0], ValueError),
        (None, TypeError),
    ):
        with pytest.raises(error, match="x "):
            stream.run(bad)
    h = state[0] if spec.kind == "lstm" else state
    for bad in (h[:, :1], h.astype(np.float64), "text", (h, h, h)):
        with pytest.raises((TypeError, ValueError), match="state"):
            stream.state = bad
    assert stream.snapshot() == before
    assert_same_bits(stream.run(x), layer(x, state)[0])


@pytest.mark.parametrize("kind", LAYERS)
def test_bidirectional_layers_do_not_stream(rng, kind):
    layer = LAYERS[kind](random_spec(rng, kind, 3, 5, 1, True))
    with pytest.raises(ValueError, match="bidirectional"):
        layer.stream()


def test_time_major_layers_stream_alike(rng, layer, spec):
    """A stream is (B, T, I) whatever batch_first says."""
    x, _ = steps_of(rng, spec, 2)
    assert_same_bits(LAYERS[spec.kind](replace(spec, batch_first=False)).stream(2).run(x), layer.stream(2).run(x))


def test_streams_of_one_layer_are_independent(rng, layer, spec):
    x, _ = steps_of(rng, spec, 4)
    streams = [layer.stream() for _ in range(4)]
    found = [[stream.step(x[row : row + 1, t]) for row, stream in enumerate(streams)] for t in range(6)]
    assert_same_bits(np.stack([np.concatenate(step) for step in found], 1), layer(x)[0])


def test_many_threads_with_a_stream_each(rng, layer, spec):
    x, state = steps_of(rng, spec, 4, 200)
    wanted, _ = layer(x, state)
    results = {}

    def work(row):
        stream = layer.stream()
        stream.state = rows_of_state(state, [row])
        results[row] = np.stack([stream.step(x[row : row + 1, t]) for t in range(200)], 1)

    run_threads(work, range(4))
    for row in range(4):
        assert_same_bits(results[row], wanted[row : row + 1])


def test_two_threads_on_one_stream(rng):
    """Concurrent calls are correct or refused; refused calls change nothing."""
    spec = random_spec(rng, "lstm", 8, 64)
    layer = fastrnn.LSTM(spec)
    stream = layer.stream(4)
    chunk = rng.standard_normal((4, 50, 8)).astype(np.float32)
    done, refused = [], []

    def work(_):
        for _ in range(30):
            try:
                done.append(stream.run(chunk))
            except RuntimeError as error:
                refused.append(str(error))

    run_threads(work, range(2))
    assert len(done) + len(refused) == 60 and done
    assert all("in use" in message for message in refused)
    _, last = layer(np.tile(chunk, (1, len(done), 1)))
    assert_same_bits(stream.state, last)


def run_threads(work, arguments):
    threads = [threading.Thread(target=work, args=(argument,)) for argument in arguments]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_raw_state_is_checked():
    weights = {"weight_ih_l0": np.zeros((4, 3), np.float32), "weight_hh_l0": np.zeros((4, 1), np.float32)}
    stream = fastrnn.LSTM.from_state_dict(weights).stream()
    with pytest.raises(TypeError):
        stream.set_state(5, 6)
    with pytest.raises(ValueError, match="h is float32"):
        stream.get_state(np.zeros(0, np.float32), None)


@pytest.mark.skipif(not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="this Python has no free threading")
def test_the_module_keeps_the_gil():
    """The GIL guards a stream's busy flag and a layer's spare workspaces."""
    code = "import sys, fastrnn; assert sys._is_gil_enabled()"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
