"""Layers of the reverse direction only: each row runs from its own last step."""

from dataclasses import replace

import cases
import numpy as np
import pytest
from bits import MODELS, assert_same_bits
from cases import LAYERS, random_batch, random_spec
from test_options import ENGINES

import fastrnn
from fastrnn import _core, reference
from fastrnn.spec import CellSpec, LayerSpec

MASK = np.array(
    [
        [1, 1, 1, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0],
        [0, 1, 0, 1, 1, 0, 1],
        [0, 0, 0, 1, 0, 0, 0],
        [1, 1, 1, 1, 1, 1, 1],
        [0, 0, 1, 1, 1, 0, 0],
        [1, 0, 0, 0, 0, 0, 1],
        [0, 0, 0, 0, 0, 0, 1],
        [1, 1, 0, 1, 1, 1, 1],
    ],
    bool,
)


def reversed_spec(rng, name, num_layers=1, hidden_size=9):
    kind, options = MODELS[name]
    return replace(random_spec(rng, kind, 5, hidden_size, num_layers, **options), reverse=True).validate()


def batch_of(rng, spec, engine, lengths=cases.LENGTHS):
    return random_batch(rng, spec, lengths, engine.get("dtype", np.float32))


def both_ways(rng, spec):
    """A bidirectional spec whose reverse direction is this one, with another forward direction."""
    other = random_spec(rng, spec.kind, 5, spec.hidden_size, proj_size=spec.proj_size)
    return replace(spec, cells=[*other.cells, *spec.cells], bidirectional=True, reverse=False).validate()


def doubled(state):
    """The state for both directions; that of the forward direction differs."""
    if isinstance(state, tuple):
        return tuple(map(doubled, state))
    return np.concatenate([1 - state, state])


def second_half(result, P):
    """The outputs and the state of a bidirectional layer's reverse direction."""
    y, last = result
    return y[..., P:], tuple(part[1:] for part in last) if isinstance(last, tuple) else last[1:]


def turned(array, lengths):
    array = array.copy()
    for row, length in enumerate(lengths):
        array[row, :length] = array[row, :length][::-1]
    return array


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", MODELS)
def test_equals_the_reverse_half_of_both_directions(rng, name, engine):
    spec = reversed_spec(rng, name)
    batch = batch_of(rng, spec, engine)
    one, both = LAYERS[spec.kind](spec, **engine), LAYERS[spec.kind](both_ways(rng, spec), **engine)
    full = np.nan_to_num(batch.x)
    for state, x, options in (
        (batch.state, batch.x, {"lengths": batch.lengths}),
        (batch.state, batch.x, {"lengths": batch.lengths, "past_end": "carry"}),
        (None, batch.x, {"lengths": batch.lengths}),
        (batch.state, full, {}),
        (batch.state, full, {"mask": MASK}),
        (batch.state, full, {"mask": MASK, "past_end": "carry"}),
        (batch.state, batch.x, {"mask": MASK, "lengths": batch.lengths, "past_end": "carry"}),
        (batch.state, full, {"mask": np.arange(7) < np.array(batch.lengths)[:, None], "past_end": "carry"}),
    ):
        wanted = second_half(both(x, None if state is None else doubled(state), **options), spec.h_size)
        assert_same_bits(one(x, state, **options), wanted, str(options))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("name", MODELS)
def test_equals_a_forward_layer_on_rows_turned_round(rng, name, num_layers, engine):
    spec = reversed_spec(rng, name, num_layers)
    batch = batch_of(rng, spec, engine)
    reverse, forward = (LAYERS[spec.kind](replace(spec, reverse=flag), **engine) for flag in (True, False))
    assert reverse.reverse and not forward.reverse and reverse.num_directions == 1
    y, last = reverse(batch.x, batch.state, lengths=batch.lengths)
    y_turned, last_turned = forward(turned(batch.x, batch.lengths), batch.state, lengths=batch.lengths)
    assert_same_bits((turned(y, batch.lengths), last), (y_turned, last_turned))
    assert not np.array_equal(y, y_turned)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", MODELS)
def test_lists_packed_and_unrolled(rng, name, engine):
    spec = reversed_spec(rng, name, 2)
    batch = batch_of(rng, spec, engine)
    layer = LAYERS[spec.kind](spec, **engine)
    y, last = layer(batch.x, batch.state, lengths=batch.lengths)
    rows, list_last = layer([row[:n] for row, n in zip(batch.x, batch.lengths, strict=True)], batch.state)
    assert_same_bits((rows, list_last), ([row[:n] for row, n in zip(y, batch.lengths, strict=True)], last))
    packed, packed_last = layer(fastrnn.pack(batch.x, batch.lengths), batch.state)
    assert_same_bits((fastrnn.unpack(packed)[0], packed_last), (y, last))
    full = np.nan_to_num(batch.x)
    assert_same_bits(layer.unroll(7)(full, batch.state), layer(full, batch.state))
    time_major = LAYERS[spec.kind](replace(spec, batch_first=False), **engine)
    y_major, major_last = time_major(batch.x.swapaxes(0, 1), batch.state, lengths=batch.lengths)
    assert_same_bits((y_major.swapaxes(0, 1), major_last), (y, last))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("past_end", ["zero", "carry"])
@pytest.mark.parametrize("name", MODELS)
def test_equals_the_reference(rng, name, past_end, engine):
    spec = reversed_spec(rng, name, 2)
    batch = batch_of(rng, spec, engine)
    layer = LAYERS[spec.kind](spec, **engine)
    full = np.nan_to_num(batch.x)
    for x, lengths, mask in ((batch.x, batch.lengths, None), (full, None, MASK), (full, None, None)):
        y, last = layer(x, batch.state, lengths=lengths, mask=mask, past_end=past_end)
        found = (y, *last) if spec.kind == "lstm" else (y, last, None)
        cases.assert_close(found, reference.run(spec, x, batch.state, lengths, past_end, mask), 3e-6)


@pytest.mark.parametrize("kind", LAYERS)
def test_three_witnesses(rng, kind):
    """PyTorch's reverse direction, the reference and the kernels agree."""
    torch = pytest.importorskip("torch")
    import live_torch

    module = live_torch.module(kind, 5, 9, bidirectional=True, batch_first=True)
    arrays = {name: array.numpy() for name, array in module.state_dict().items()}
    parts = {name.removesuffix("_l0_reverse"): array for name, array in arrays.items() if name.endswith("_reverse")}
    spec = LayerSpec(kind, [CellSpec(**parts)], 5, 9, reverse=True).validate()
    batch = random_batch(rng, spec, (3, 2, 7, 1, 3, 7, 1, 5))
    y, h, c = live_torch.run(module, batch.x, doubled(batch.state), batch.lengths)
    wanted = y[..., 9:], h[1:], None if c is None else c[1:]
    assert torch.is_tensor(module.weight_ih_l0_reverse)
    cases.assert_close(cases.run_engine(spec, batch.x, batch.state, batch.lengths), wanted, 5e-6)
    cases.assert_close(reference.run(spec, batch.x, batch.state, batch.lengths), wanted, 5e-6)


@pytest.mark.parametrize(("lengths", "hidden_size"), [((9,), 70), (cases.LENGTHS, 17), ((4,) * 40, 9)])
@pytest.mark.parametrize("num_layers", [1, 3])
@pytest.mark.parametrize("name", MODELS)
def test_any_number_of_threads(rng, isa, name, num_layers, lengths, hidden_size):
    spec = reversed_spec(rng, name, num_layers, hidden_size)
    layer, batch = LAYERS[spec.kind](spec, backend="fused", isa=isa), random_batch(rng, spec, lengths)
    before = fastrnn.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3, 4):
            _core.set_num_threads(threads, 0)
            run = layer(batch.x, batch.state, lengths=batch.lengths, past_end="carry")
            unrolled = layer.unroll(len(batch.x[0]))(np.nan_to_num(batch.x), batch.state)
            results.append((run, unrolled))
    finally:
        fastrnn.set_num_threads(before)
    for found in results[1:]:
        assert_same_bits(found, results[0])


def test_a_masked_step_repeats_what_comes_after_it():
    """The output repeated is that of the next later step, or zeros if there is none."""
    cell = CellSpec(
        np.ones((1, 1), np.float32), np.zeros((1, 1), np.float32), activations=(fastrnn.Activation.of("relu"),)
    )
    layer = fastrnn.RNN(LayerSpec("rnn", [cell], 1, 1, reverse=True))
    x = np.arange(1, 6, dtype=np.float32).reshape(1, 5, 1)
    y, h = layer(x, mask=[[False, True, False, True, False]], past_end="carry")
    assert y[0, :, 0].tolist() == [2, 2, 4, 4, 0] and h.item() == 2
    y, h = layer(x, lengths=[3], past_end="carry")
    assert y[0, :, 0].tolist() == [1, 2, 3, 1, 1] and h.item() == 1


@pytest.mark.parametrize("kind", LAYERS)
def test_a_reverse_layer_does_not_stream(rng, kind):
    layer = LAYERS[kind](replace(random_spec(rng, kind, 3, 4), reverse=True))
    with pytest.raises(ValueError, match="the layer runs in reverse, wanted the forward direction"):
        layer.stream()
    with pytest.raises(ValueError, match="out of range"):
        _core.Stream(layer._engine, 1)


def test_descriptions(rng):
    spec = random_spec(rng, "lstm", 3, 4, 2)
    assert not spec.reverse
    spec = replace(spec, reverse=np.True_)
    assert spec.num_directions == 1 and spec.name(1, "weight_ih") == "weight_ih_l1"
    layer = fastrnn.LSTM(spec)
    assert layer.reverse is True and "reverse=True" in repr(layer)
    with pytest.raises(ValueError, match=r"reverse is True, but the layer is bidirectional"):
        replace(random_spec(rng, "lstm", 3, 4, 1, True), reverse=True).validate()
    for bad in (1, "False", None):
        with pytest.raises(TypeError, match=r"^reverse is .*, wanted True or False"):
            replace(spec, reverse=bad).validate()
