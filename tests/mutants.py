"""Known bugs of recurrent engines, introduced on purpose: each turns a correct `run` into a wrong one.

A mutant takes a function with the signature of ``fastrnn.reference.run`` and returns one with the bug. Most
change the spec before the call; the others change the call.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from fastrnn.spec import NUM_GATES, Activation, CellSpec, LayerSpec

Run = Callable[..., tuple[Any, Any, Any]]

GATES = {"lstm": "ifgo", "gru": "rzn", "rnn": "h"}
ROWS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def in_spec(change: Callable[[LayerSpec], LayerSpec]) -> Callable[[Run], Run]:
    return lambda run: lambda spec, *call: run(change(spec), *call)


def in_cells(change: Callable[[CellSpec], CellSpec]) -> Callable[[Run], Run]:
    return in_spec(lambda spec: replace(spec, cells=[change(cell) for cell in spec.cells]))


def without(**options: Any) -> Callable[[Run], Run]:
    return in_cells(lambda cell: replace(cell, **options))


def after(change: Callable[..., tuple[Any, Any, Any]]) -> Callable[[Run], Run]:
    """Change the results; `change` gets (spec, lengths, y, h, c)."""

    def plant(run: Run) -> Run:
        def wrong(spec, x, state, lengths, past_end):
            y, h, c = run(spec, x, state, lengths, past_end)
            return change(spec, lengths, y.copy(), h.copy(), c)

        return wrong

    return plant


def swap_gates(kind: str, a: str, b: str) -> Callable[[Run], Run]:
    order = [GATES[kind].index({a: b, b: a}.get(gate, gate)) for gate in GATES[kind]]

    def swapped(array: np.ndarray) -> np.ndarray:
        return np.concatenate([np.split(array, len(order))[gate] for gate in order])

    return in_cells(lambda cell: replace(cell, **{part: swapped(getattr(cell, part)) for part in ROWS}))


def transpose_recurrent(kind: str) -> Callable[[Run], Run]:
    def transposed(cell: CellSpec) -> CellSpec:
        blocks = np.split(cell.weight_hh, NUM_GATES[kind])
        if blocks[0].shape[0] != blocks[0].shape[1]:
            return cell
        return replace(cell, weight_hh=np.concatenate([block.T for block in blocks]))

    return in_cells(transposed)


def permute_peepholes(*order: int) -> Callable[[Run], Run]:
    def permuted(cell: CellSpec) -> CellSpec:
        return cell if cell.peephole is None else replace(cell, peephole=cell.peephole[list(order)])

    return in_cells(permuted)


def swap_directions(spec: LayerSpec) -> LayerSpec:
    if not spec.bidirectional:
        return spec
    return replace(spec, cells=[spec.cells[index ^ 1] for index in range(len(spec.cells))])


def swap_layers(spec: LayerSpec) -> LayerSpec:
    """Applies only if both layers have the same shapes."""
    if spec.num_layers == 1:
        return spec
    D = spec.num_directions
    return replace(spec, cells=[*spec.cells[D:], *spec.cells[:D]])


def flip_z(cell: CellSpec) -> CellSpec:
    """sigma(-a) = 1 - sigma(a), so this is h' = z n + (1 - z) h."""

    def flipped(array: np.ndarray) -> np.ndarray:
        r, z, n = np.split(array, 3)
        return np.concatenate([r, -z, n])

    return replace(cell, **{part: flipped(getattr(cell, part)) for part in ROWS})


def candidate_bias_outside_reset(cell: CellSpec) -> CellSpec:
    H = len(cell.bias_hh) // 3
    moved = np.concatenate([np.zeros(2 * H), cell.bias_hh[2 * H :]]).astype(cell.bias_hh.dtype)
    return replace(cell, bias_ih=cell.bias_ih + moved, bias_hh=cell.bias_hh - moved)


def peephole_o_sees_old_c(run: Run) -> Run:
    """Run step by step, with p_o * c_{t-1} moved into o's bias."""

    def wrong(spec, x, state, lengths, past_end):
        (cell, *others) = spec.cells
        if others or cell.peephole is None:
            return run(spec, x, state, lengths, past_end)
        y, _, _ = run(spec, x, state, lengths, past_end)
        h, c = state[0].copy(), state[1].copy()
        for row, length in enumerate(lengths):
            one = slice(row, row + 1)
            for t in range(length):
                p_i, p_f, p_o = cell.peephole
                bias = cell.bias_ih.copy()
                bias[-spec.hidden_size :] += p_o * c[0, row]
                stepped = replace(cell, bias_ih=bias, peephole=np.stack([p_i, p_f, 0 * p_o]))
                step = replace(spec, cells=[stepped])
                y[row, t], h[:, one], c[:, one] = run(step, x[one, t : t + 1], (h[:, one], c[:, one]), [1], past_end)
            y[row, length:] = h[0, row] if past_end == "carry" else 0
        return y, h, c

    return wrong


def ignore_initial(which: str) -> Callable[[Run], Run]:
    def plant(run: Run) -> Run:
        def wrong(spec, x, state, lengths, past_end):
            if spec.kind != "lstm":
                state = np.zeros_like(state)
            elif which == "h":
                state = (np.zeros_like(state[0]), state[1])
            else:
                state = (state[0], np.zeros_like(state[1]))
            return run(spec, x, state, lengths, past_end)

        return wrong

    return plant


def swap_initial_h_and_c(run: Run) -> Run:
    def wrong(spec, x, state, lengths, past_end):
        state = state if spec.proj_size else (state[1], state[0])
        return run(spec, x, state, lengths, past_end)

    return wrong


def shift_initial_rows(run: Run) -> Run:
    """Use the state of another row, as if the state were not sorted with the batch."""

    def wrong(spec, x, state, lengths, past_end):
        state = tuple(np.roll(s, 1, 1) for s in state) if spec.kind == "lstm" else np.roll(state, 1, 1)
        return run(spec, x, state, lengths, past_end)

    return wrong


def ignore_lengths(run: Run) -> Run:
    def wrong(spec, x, state, lengths, past_end):
        return run(spec, np.nan_to_num(x), state, [x.shape[1]] * len(x), past_end)

    return wrong


def state_lost_past_end(spec, lengths, y, h, c):
    """Return the state at step T - 1, to which no state was carried."""
    h[:, np.asarray(lengths) < y.shape[1]] = 0
    return y, h, c


def zero_length_state_lost(spec, lengths, y, h, c):
    h[:, np.asarray(lengths) == 0] = 0
    return y, h, c


def cell_state_lost_past_end(spec, lengths, y, h, c):
    return y, h, np.where((np.asarray(lengths) < y.shape[1])[:, None], 0, c)


def reverse_left_reversed(spec, lengths, y, h, c):
    if spec.bidirectional:
        half = slice(spec.h_size, None)
        for row, length in enumerate(lengths):
            y[row, :length, half] = y[row, :length, half][::-1].copy()
    return y, h, c


def reverse_starts_at_the_batches_end(run: Run) -> Run:
    """The reverse direction runs over the padding first."""

    def wrong(spec, x, state, lengths, past_end):
        y, h, c = (a if a is None else a.copy() for a in run(spec, x, state, lengths, past_end))
        if spec.bidirectional:
            y_padded, h_padded, _ = run(spec, np.nan_to_num(x), state, [x.shape[1]] * len(x), past_end)
            y[..., spec.h_size :] = y_padded[..., spec.h_size :]
            h[1::2] = h_padded[1::2]
        return y, h, c

    return wrong


def final_reverse_state_from_the_last_step(spec, lengths, y, h, c):
    if spec.bidirectional:
        for row, length in enumerate(lengths):
            if length:
                h[-1, row] = y[row, length - 1, spec.h_size :]
    return y, h, c


def halves_of_y_swapped(spec, lengths, y, h, c):
    P = spec.h_size
    return (np.concatenate([y[..., P:], y[..., :P]], -1) if spec.bidirectional else y), h, c


def states_by_direction_then_layer(spec, lengths, y, h, c):
    D = spec.num_directions
    h = h.reshape(spec.num_layers, D, *h.shape[1:]).swapaxes(0, 1).reshape(h.shape)
    return y, h, c


def carry_zeroed(spec, lengths, y, h, c):
    for row, length in enumerate(lengths):
        y[row, length:] = 0
    return y, h, c


def carry_ignored(run: Run) -> Run:
    return lambda spec, x, state, lengths, past_end: run(spec, x, state, lengths, "zero")


def always_carry(run: Run) -> Run:
    return lambda spec, x, state, lengths, past_end: run(spec, x, state, lengths, "carry")


#: name -> the mutants of one kind of cell
MUTANTS: dict[str, dict[str, Callable[[Run], Run]]] = {
    kind: {
        "R transposed": transpose_recurrent(kind),
        "bias_ih dropped": without(bias_ih=None),
        "bias_hh dropped": without(bias_hh=None),
        "initial h ignored": ignore_initial("h"),
        "initial state of another row": shift_initial_rows,
        "lengths ignored": ignore_lengths,
        "state not carried past the end": after(state_lost_past_end),
        "state of zero-length rows lost": after(zero_length_state_lost),
        "reverse outputs in reverse order": after(reverse_left_reversed),
        "reverse starts at T - 1": reverse_starts_at_the_batches_end,
        "final reverse state from the last step": after(final_reverse_state_from_the_last_step),
        "directions swapped": in_spec(swap_directions),
        "halves of y swapped": after(halves_of_y_swapped),
        "layers swapped": in_spec(swap_layers),
        "states by direction, then layer": after(states_by_direction_then_layer),
        "past_end always zero": carry_ignored,
        "past_end always carry": always_carry,
        "gate clip ignored": without(gate_clip=None),
    }
    for kind in NUM_GATES
}
MUTANTS["lstm"] |= {
    f"gates {a} and {b} swapped": swap_gates("lstm", a, b) for a, b in ("if", "fo", "fg", "io", "ig", "go")
}
MUTANTS["gru"] |= {f"gates {a} and {b} swapped": swap_gates("gru", a, b) for a, b in ("rz", "rn", "zn")}
MUTANTS["lstm"] |= {
    "initial c ignored": ignore_initial("c"),
    "initial h and c swapped": swap_initial_h_and_c,
    "c not carried past the end": after(cell_state_lost_past_end),
    "peephole o sees the old c": peephole_o_sees_old_c,
    "peepholes i and f swapped": permute_peepholes(1, 0, 2),
    "peepholes in ONNX's order": permute_peepholes(0, 2, 1),
    "peepholes ignored": without(peephole=None),
    "cell clip ignored": without(cell_clip=None),
    "coupling ignored": without(coupled=False),
    "projection clip ignored": without(proj_clip=None),
}
MUTANTS["gru"] |= {
    "z keeps the new": in_cells(flip_z),
    "reset before the matmul": without(linear_before_reset=False),
    "reset after the matmul": without(linear_before_reset=True),
    "candidate bias outside the reset": in_cells(candidate_bias_outside_reset),
}
MUTANTS["rnn"] |= {"relu for tanh": without(activations=(Activation.of("relu"),))}
