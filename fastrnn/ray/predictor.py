"""Bulk scoring: a class that Ray Data's workers run on the batches of a dataset."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arguments import as_floats, as_ids
from ..files.load import load
from ..layers import Layer
from ..models.sequential import Sequential
from .columns import rows_of, with_column
from .model_files import fetch
from .reserved import use_reserved_processors
from .vocabulary import Vocabulary


class Predictor:
    """A model on a column of sequences, for ``dataset.map_batches``.

    A batch is sorted by length, runs at once, and is put back in its order. A row's result has the same bits whatever
    the number of workers and the sizes of batches and blocks. In a worker of Ray the calls use as many threads as the
    worker has processors reserved (``num_cpus``, 1 by default).

    Parameters
    ----------
    model : str, path, layer, Sequential or function
        A file that ``fastrnn.load`` reads, on any file system that fsspec knows; it is fetched once a machine. A
        function without arguments is called in each worker and returns what is called with a batch's rows, longest
        first, and returns their results in that order: for whatever is more than one layer or Sequential.
    inputs : str
        The column of sequences: of numbers or ids (T,), of vectors (T, I), as arrays, lists or Arrow's lists; of
        strings, whose characters are the steps; or of lists of strings, which are the steps.
    outputs : str
        The column that is added: y of each row, float32 (S, O), or (O,) of a model that pools.
    vocabulary : mapping, list, str or path
        The ids of strings: by token, or tokens in the order of their ids, or the path of a JSON file with one of
        them. Model files hold none.
    unknown : str
        The token that stands for those that the vocabulary has not. None: they are refused.
    **options
        As of ``fastrnn.load``.

    Raises
    ------
    TypeError, ValueError
        Arguments do not fit together, or the model cannot be used.
    OSError
        The file cannot be read.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> from fastrnn import ray as fray
    >>> weights = {"weight_ih_l0": np.ones((3, 1), "f4"), "weight_hh_l0": np.ones((3, 1), "f4")}
    >>> predictor = fray.Predictor(fastrnn.GRU.from_state_dict(weights), "x", "y")
    >>> batch = predictor({"x": [[0.5], [1.0, 2.0, 3.0]]})
    >>> [y.shape for y in batch["y"]]
    [(1, 1), (3, 1)]
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | Layer[Any] | Sequential | Callable[[], Callable[[list[Any]], Sequence[Any]]],
        inputs: str,
        outputs: str,
        *,
        vocabulary: Mapping[str, int] | Sequence[str] | str | os.PathLike[str] | None = None,
        unknown: str | None = None,
        **options: Any,
    ) -> None:
        for name, column in (("inputs", inputs), ("outputs", outputs)):
            if not isinstance(column, str):
                raise TypeError(f"{name} is {column!r}, wanted the name of a column")
        self.inputs, self.outputs = inputs, outputs
        self._vocabulary = None if vocabulary is None else Vocabulary(vocabulary, unknown)
        if unknown is not None and vocabulary is None:
            raise ValueError(f"unknown is {unknown!r}, but there is no vocabulary")
        use_reserved_processors()
        self._run = self._runner(model, options)

    def __call__(self, batch: Any) -> Any:
        """Score a batch: a mapping of arrays, a pyarrow.Table or a pandas.DataFrame.

        Returns
        -------
        of the same kind
            With the column `outputs`.

        Raises
        ------
        KeyError
            There is no column `inputs`.
        TypeError, ValueError
            A row is missing or does not fit the model.
        """
        rows = [self._encode(row, index) for index, row in enumerate(rows_of(batch, self.inputs))]
        order = sorted(range(len(rows)), key=lambda index: -len(rows[index]))
        found = self._run([rows[index] for index in order], order) if rows else []
        if len(found) != len(rows):
            raise ValueError(f"the model returned {len(found)} results for {len(rows)} rows")
        results: list[Any] = [None] * len(rows)
        for index, result in zip(order, found, strict=True):
            results[index] = result
        return with_column(batch, self.outputs, results)

    def _encode(self, row: Any, index: int) -> Any:
        """Strings as ids, if there is a vocabulary; other rows as they are."""
        if self._vocabulary is None:
            return row
        if not isinstance(row, str) and not all(isinstance(token, str) for token in row):
            raise TypeError(f"{self.inputs}[{index}] is {row!r:.100}, wanted a string, or strings, for the vocabulary")
        return self._vocabulary.ids(row, f"{self.inputs}[{index}]")

    def _runner(self, model: Any, options: dict[str, Any]) -> Callable[[list[Any], list[int]], Sequence[Any]]:
        """What runs rows, of which the second argument has the numbers in the batch."""
        if isinstance(model, str | os.PathLike):
            path, model = model, load(fetch(model), **options)
            if not isinstance(model, Layer | Sequential):
                raise TypeError(f"{path} is loaded as {type(model)}, wanted a layer or a Sequential")
        elif options:
            raise TypeError(f"{' and '.join(options)} given, which are options of a file, but model is none")
        if isinstance(model, Layer | Sequential):
            return lambda rows, numbers: self._run_model(model, rows, numbers)
        if not callable(model):
            raise TypeError(f"model is {type(model).__name__}, wanted a file, a layer, a Sequential or a function")
        function = model()
        if not callable(function):
            raise TypeError(f"model() is {type(function).__name__}, wanted what is called with rows")
        return lambda rows, numbers: function(rows)

    def _run_model(self, model: Layer[Any] | Sequential, rows: list[Any], numbers: list[int]) -> Sequence[Any]:
        checked = [self._check(model, row, number) for row, number in zip(rows, numbers, strict=True)]
        results: Sequence[Any] = model(checked) if isinstance(model, Sequential) else model(checked)[0]
        return results

    def _check(self, model: Layer[Any] | Sequential, row: Any, number: int) -> NDArray[Any]:
        """A row as the model takes it: ids (T,), or (T, I)."""
        name = f"{self.inputs}[{number}]"
        if isinstance(row, str) or (len(row) and isinstance(row[0], str)):
            raise TypeError(f"{name} has strings, but there is no vocabulary")
        try:
            steps = np.asarray(row)
            if steps.dtype == object:  # Arrow's lists of lists are arrays of arrays
                steps = np.array([np.asarray(step) for step in row])
        except ValueError:
            raise ValueError(f"{name} has steps of unequal widths") from None
        num_ids = model.num_ids if isinstance(model, Sequential) else 0
        if num_ids:
            steps = as_ids(steps if steps.size else steps.astype(np.int64), name)
            if steps.ndim == 1 and steps.size and not 0 <= steps.min() <= steps.max() < num_ids:
                raise ValueError(f"{name} has ids from {steps.min()} to {steps.max()}, wanted 0 to {num_ids - 1}")
            wanted: tuple[Any, ...] = ("T",)
        else:
            steps = as_floats(steps, name, model.dtype, "same_kind")
            if not len(steps) or (steps.ndim == 1 and model.input_size == 1):  # rows without steps have no width
                steps = steps.reshape(-1, model.input_size)
            wanted = ("T", model.input_size)
        if steps.ndim != len(wanted) or steps.shape[1:] != wanted[1:]:
            raise ValueError(f"{name} has shape {steps.shape}, wanted ({', '.join(map(str, wanted))})")
        return steps
