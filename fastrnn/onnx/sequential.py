"""Graphs that are chains of layers, as a Sequential that also knows the graph's names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

from numpy.typing import ArrayLike

from ..models import sequential
from ..spec import WeightDtype
from .analysis import Analysis, Part
from .chain_call import ChainCall
from .runner import Port, Runner


class Sequential(sequential.Sequential):
    """A ``fastrnn.Sequential`` out of a graph of ONNX; ``fastrnn.load`` makes it.

    Called as a Sequential it takes x (B, T, I), or (T, B, I) where the graph has steps first, and lengths whether or
    not the graph has an input for them: each row is what the graph computes for it alone. :meth:`run` is the graph.

    Attributes
    ----------
    inputs, outputs : tuple of Port
    parts : tuple of Part
        One, as all runs here.
    lengths_input : str or None
        The input that is the sequence_lens of the graph's nodes.
    """

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    parts: tuple[Part, ...]
    lengths_input: str | None

    @classmethod
    def from_analysis(cls, analysis: Analysis, *, isa: str | None = None) -> Sequential:
        """Make one of a graph that is a plain chain.

        Raises
        ------
        ValueError
            There is no such instruction set.
        """
        chain = analysis.chain
        assert chain is not None and chain.is_plain
        model = cls.from_spec(chain.spec, isa=isa)
        call = ChainCall(chain, model)
        runner = Runner(analysis.graph, [call], {}, ())
        names = (call, runner, runner.inputs, runner.outputs, analysis.parts, analysis.lengths)
        vars(model).update(zip(_NAMES, names, strict=True))  # the model itself is immutable by now
        return model

    def __reduce__(self) -> tuple[Any, ...]:
        return (*super().__reduce__(), {name: vars(self)[name] for name in _NAMES})

    def with_weight_dtype(self, weight_dtype: WeightDtype) -> Self:
        """As of fastrnn.Sequential; :meth:`run` computes with these weights, too."""
        model = super().with_weight_dtype(weight_dtype)
        names = {name: vars(self)[name] for name in _NAMES}
        runner = names["_runner"].with_steps([names["_call"].on(model)])
        vars(model).update(names | {"_runner": runner})
        return model

    def run(self, output_names: Sequence[str] | None, feed: Mapping[str, ArrayLike]) -> list[Any]:
        """Compute outputs by the graph's own names, in the graph's order of axes.

        Parameters
        ----------
        output_names : names of outputs; None for all
        feed : for each input an array of the graph's type and shape

        Returns
        -------
        list of arrays, in the order of `output_names`

        Raises
        ------
        ValueError, TypeError
            A name is unknown, an input is missing or does not fit; the message says which.
        """
        runner: Runner = vars(self)["_runner"]
        return runner.run(output_names, feed)


#: What a model from a graph has beside that of a model.
_NAMES = ("_call", "_runner", "inputs", "outputs", "parts", "lengths_input")
