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
        Tokens are no strings, ids no integers from 0 on, or `unknown` is not there; the file is no JSON.
    OSError
        The file cannot be read.
    """

    def __init__(
        self, source: Mapping[str, int] | Sequence[str] | str | os.PathLike[str], unknown: str | None = None
    ) -> None:
        tokens: Any = source
        if isinstance(source, str | os.PathLike):
            with open(fetch(source), encoding="utf-8") as file:
                try:
                    tokens = json.load(file)
                except ValueError as error:
                    raise ValueError(f"vocabulary is {os.fspath(source)}, which is no JSON: {error}") from None
        if isinstance(tokens, Mapping):
            pairs = list(tokens.items())
        elif isinstance(tokens, Sequence) and not isinstance(tokens, str):
            pairs = [(token, number) for number, token in enumerate(tokens)]
        else:
            raise TypeError(f"vocabulary is {type(tokens).__name__}, wanted ids by token, or a list of tokens")
        for token, number in pairs:
            if not isinstance(token, str) or isinstance(number, bool) or not isinstance(number, int | np.integer):
                raise TypeError(f"vocabulary has {token!r}: {number!r}, wanted a string and an integer")
            if not 0 <= number < 1 << 63:
                raise ValueError(f"vocabulary has {token!r}: {number}, wanted an id from 0 to 2^63 - 1")
        tokens = dict(pairs)
        if len(tokens) < len(pairs):
            raise ValueError("vocabulary has a token twice")
        if unknown is not None and unknown not in tokens:
            raise ValueError(f"unknown is {unknown!r}, which is not in the vocabulary")
        self._ids: dict[str, int] = tokens
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
