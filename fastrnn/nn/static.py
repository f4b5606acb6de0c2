"""static_rnn, and plans for a fixed number of steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from ..arguments import as_integer
from .cells import runner_of, wanted_of
from .checks import check_cell, check_inputs, check_like, check_sequence_length
from .dynamic import start_state
from .structure import Structure, flatten, map_structure


class StaticPlan:
    """A cell unrolled for exactly `num_steps` steps, built once and run many times, like a static graph.

    Building takes time and memory that grow with num_steps; :func:`dynamic_rnn` builds nothing.

    Parameters
    ----------
    cell : as for :func:`dynamic_rnn`
    num_steps : T

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn import nn
    >>> weights = {"kernel": np.ones((2, 1)), "bias": np.zeros(1)}
    >>> cell = nn.rnn_cell.BasicRNNCell(1, activation="linear", weights=weights)
    >>> plan = nn.StaticPlan(cell, 3)
    >>> outputs, state = plan([np.ones((2, 1))] * 3)
    >>> [float(output[0, 0]) for output in outputs]
    [1.0, 2.0, 3.0]
    """

    def __init__(self, cell: Any, num_steps: int) -> None:
        check_cell(cell, "cell")
        self.cell = cell
        self.num_steps = as_integer(num_steps, "num_steps", 0)
        self._run = runner_of(cell, self.num_steps)

    def __reduce__(self) -> tuple[type[StaticPlan], tuple[Any, int]]:
        """Copies and pickles build their plan again."""
        return type(self), (self.cell, self.num_steps)

    def __call__(
        self, inputs: Sequence[Structure], initial_state: Structure = None, dtype: DTypeLike | None = None
    ) -> tuple[list[Structure], Structure]:
        """Run T steps; arguments and results are those of :func:`static_rnn`.

        Raises
        ------
        ValueError
            There is another number of inputs.
        """
        outputs, state = self.run_batch(stack_steps(inputs, self.cell), initial_state, dtype)
        return split_steps(outputs, self.num_steps), state

    def run_batch(
        self, inputs: Structure, initial_state: Structure = None, dtype: DTypeLike | None = None
    ) -> tuple[Structure, Structure]:
        """Run T steps on inputs (B, T, I) to outputs (B, T, O)."""
        arrays = check_inputs(inputs, "inputs", "BT", *wanted_of(self.cell))
        T = flatten(arrays)[0].shape[1]
        if self.num_steps != T:
            raise ValueError(f"inputs has {T} steps, but the plan was built for {self.num_steps}")
        return self._run(arrays, start_state(self.cell, arrays, initial_state, dtype), None)


def static_rnn(
    cell: Any,
    inputs: Sequence[Structure],
    initial_state: Structure = None,
    dtype: DTypeLike | None = None,
    sequence_length: ArrayLike | None = None,
    scope: Any = None,
) -> tuple[list[Structure], Structure]:
    """Run a cell over a list of steps.

    Without lengths it runs unrolled, every row all T steps; a :class:`StaticPlan` saves building that each time. With
    lengths it runs on the sorted path: steps past a row's end are not computed.

    Parameters
    ----------
    cell : as for :func:`dynamic_rnn`
    inputs : list of T arrays (B, I), or of nested structures of them for a cell of your own; T at least 1
    initial_state, dtype, sequence_length : as for :func:`dynamic_rnn`
    scope : ignored

    Returns
    -------
    outputs : list of T arrays (B, O); with lengths, zeros past a row's end
    state : structure like ``cell.state_size``, each row's last

    Raises
    ------
    TypeError, ValueError
        An argument does not fit; the message says which, what was found and what was wanted.
    """
    check_cell(cell, "cell")
    batch = stack_steps(inputs, cell)
    B, T = flatten(batch)[0].shape[:2]
    lengths = check_sequence_length(sequence_length, B, T)
    state = start_state(cell, batch, initial_state, dtype)
    outputs, state = runner_of(cell, T if lengths is None else None)(batch, state, lengths)
    return split_steps(outputs, T), state


def stack_steps(inputs: Sequence[Structure], *cells: Any) -> Structure:
    """A list of T structures of (B, I), as the cells take them, as a structure of (B, T, I)."""
    if not isinstance(inputs, (list, tuple)):
        raise TypeError(f"inputs is {type(inputs).__name__}, wanted a list with an array (B, I) for each step")
    if not inputs:
        raise ValueError("inputs is empty, wanted at least one step")
    for cell in cells:
        first = check_inputs(inputs[0], "inputs[0]", "B", *wanted_of(cell))
    steps = [check_like(first, step, f"inputs[{t}]") for t, step in enumerate(inputs)]
    return map_structure(lambda *leaves: np.stack(leaves).swapaxes(0, 1), *steps)


def split_steps(outputs: Structure, T: int) -> list[Structure]:
    """A structure of (B, T, O) as a list of T structures of (B, O)."""
    return [map_structure(lambda leaf, t=t: leaf[:, t], outputs) for t in range(T)]
