"""Strings as ids: characters, or tokens that are given apart."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .model_files import fetch


class Vocabulary:
    """The ids of tokens.

    Parameters
    ----------
    source : ids by token, or tokens in the order of their ids, or the path of a JSON file with one of them
    unknown : the token that stands for those that are not there; None: they are refused

    Raises
    ------
    TypeError, ValueError
        Tokens are no strings, ids no integers, or `unknown` is not there.
    """

    def __init__(
        self, source: Mapping[str, int] | Sequence[str] | str | os.PathLike[str], unknown: str | None = None
    ) -> None:
        tokens: Any = source
        if isinstance(source, str | os.PathLike):
            with open(fetch(source), encoding="utf-8") as file:
                tokens = json.load(file)
        if not isinstance(tokens, Mapping):
            if not isinstance(tokens, Sequence) or isinstance(tokens, str):
                raise TypeError(f"vocabulary is {type(tokens).__name__}, wanted ids by token, or a list of tokens")
            if len(set(tokens)) < len(tokens):
                raise ValueError("vocabulary has a token twice")
            tokens = {token: number for number, token in enumerate(tokens)}
        for token, number in tokens.items():
            if not isinstance(token, str) or isinstance(number, bool) or not isinstance(number, int | np.integer):
                raise TypeError(f"vocabulary has {token!r}: {number!r}, wanted a string and an integer")
        if unknown is not None and unknown not in tokens:
            raise ValueError(f"unknown is {unknown!r}, which is not in the vocabulary")
        self._ids: dict[str, int] = dict(tokens)
        self._unknown = None if unknown is None else self._ids[unknown]

    def ids(self, tokens: str | Sequence[str], name: str) -> NDArray[np.int64]:
        """The ids of a string's characters, or of tokens; name : for messages.

        Raises
        ------
        ValueError
            A token is not there, and there is no unknown.
        """
        found = list(map(self._ids.get, tokens))
        if None in found:
            if self._unknown is None:
                step = found.index(None)
                raise ValueError(f"{name} has {tokens[step]!r} at {step}, which the vocabulary has not")
            found = [self._unknown if number is None else number for number in found]
        return np.array(found, np.int64)
