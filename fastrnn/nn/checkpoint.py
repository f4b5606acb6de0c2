"""A TensorFlow 1 checkpoint as the `weights` of cells."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from numpy.typing import NDArray

from ..files.tensorflow_file import reader_of, variables_of
from ..importers.tensorflow_checkpoint import CellVariables, choose_cell, without_slots
from ..spec import CellKind


class Checkpoint(Mapping[str, NDArray[Any]]):
    """The variables of a checkpoint of ``tf.train.Saver``, by their names; optimisers' variables are left out.

    Cells take it as `weights`: each takes what TensorFlow would have restored into it, which is the one cell of its
    kind under the scope. Names before TensorFlow 1.2, such as ``weights`` and ``biases``, count as the later ones. An
    array is read when it is asked for.

    Parameters
    ----------
    prefix : the path that ``saver.restore`` took, without ``.index``

    Raises
    ------
    ValueError, NotImplementedError, OSError
        The checkpoint is damaged, of TensorFlow 2's kind, or not there.
    ModuleNotFoundError
        tensorflow is not installed, when an array is read.

    Examples
    --------
    >>> from fastrnn import nn
    >>> def ported(prefix):
    ...     variables = nn.Checkpoint(prefix)
    ...     fw = nn.rnn_cell.LSTMCell(64, weights=variables.scope("encoder/bidirectional_rnn/fw"))
    ...     bw = nn.rnn_cell.LSTMCell(64, weights=variables.scope("encoder/bidirectional_rnn/bw"))
    ...     return fw, bw, variables["softmax/kernel"]
    """

    def __init__(self, prefix: str | os.PathLike[str]) -> None:
        path = os.fspath(prefix)
        if not isinstance(path, str):
            raise TypeError(f"prefix is {prefix!r}, wanted a str or a path")
        self._path = path
        self._variables = variables_of(path)
        self._names = without_slots(self._variables)
        self._read = reader_of(path)
        self._scope = ""

    def scope(self, name: str) -> Checkpoint:
        """The variables under a scope, named without it, as in ``tf.variable_scope(name)``; scopes nest.

        Raises
        ------
        KeyError
            No variable is under it.
        """
        if not isinstance(name, str):
            raise TypeError(f"name is {name!r}, wanted a str")
        inner = object.__new__(type(self))
        inner.__dict__.update(self.__dict__)
        inner._scope = self._scope + (f"{name.strip('/')}/" if name.strip("/") else "")
        if not len(inner):
            tops = sorted({found.partition("/")[0] for found in self})
            raise KeyError(f"{inner._scope}: {self._path} has no variable there, but under {', '.join(tops[:20])}")
        return inner

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name not in self:
            raise KeyError(name)
        return self._read(self._scope + name.removesuffix(":0"))

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._scope + name.removesuffix(":0") in self._variables

    def __iter__(self) -> Iterator[str]:
        return (name.removeprefix(self._scope) for name in self._names if name.startswith(self._scope))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"Checkpoint({self._path!r})" + (f".scope({self._scope[:-1]!r})" if self._scope else "")

    def cell_weights(self, kind: CellKind, resets_after: bool = False) -> CellVariables:
        """The variables of the one cell of a kind, under TensorFlow 1.2's names such as ``kernel``.

        Raises
        ------
        ValueError
            There is none under the scope, there are several, or variables are missing, surplus or misshapen; the
            message lists them.
        """
        cell = choose_cell(self._path, self._variables, self._scope.strip("/") or None, kind, resets_after)
        return CellVariables(cell, self._read)


def weights_for(kind: CellKind, weights: Mapping[str, Any], resets_after: bool = False) -> Mapping[str, Any]:
    """What a cell of a kind takes of its argument `weights`."""
    return weights.cell_weights(kind, resets_after) if isinstance(weights, Checkpoint) else weights
