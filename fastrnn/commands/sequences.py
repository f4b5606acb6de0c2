"""Sequences out of JSON lines and npz files, in fragments of a bounded number of steps."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal, NamedTuple
from zipfile import ZipFile, ZipInfo

import numpy as np
from numpy.typing import NDArray

from ..arguments import Casting, as_floats, as_ids
from ..files import npz
from ..files.archive import BLOCK, Member, open_archive

#: Bytes of a line that are parsed at a time, and of a single step.
MOST_TEXT, MOST_STEP = 1 << 20, 1 << 26

#: Bytes of the directory of an npz with sequences: some 100,000 of them.
MOST_DIRECTORY = 1 << 23

#: All that an array of numbers consists of in JSON.
CHARACTERS = b"0123456789+-.eE,[] \t\r\n"

LENGTHS = "lengths"


@dataclass(frozen=True)
class Wanted:
    """What a layer takes: numbers of inputs I, its type, and the conversions to it that are allowed.

    With num_ids, a step is an integer from 0 to num_ids - 1, and `dtype` int64.
    """

    input_size: int
    dtype: np.dtype[Any]
    casting: Casting
    num_ids: int = 0

    @property
    def step_shape(self) -> tuple[int, ...]:
        return () if self.num_ids else (self.input_size,)

    @property
    def text(self) -> str:
        return "T integers" if self.num_ids else f"T steps of {self.input_size} numbers"

    def cast(self, array: NDArray[Any], name: str) -> NDArray[Any]:
        """Steps in the layer's type; TypeError if that is not allowed."""
        if self.num_ids:
            return as_ids(array, name)
        return as_floats(array, name, self.dtype, self.casting)

    def check(self, x: NDArray[Any], where: str, done: int) -> None:
        """Raise ValueError if steps, of which the first has the number `done`, have an id out of range."""
        if self.num_ids and (bad := (x < 0) | (x >= self.num_ids)).any():
            step = int(np.argmax(bad))
            raise ValueError(f"{where}: step {done + step} has the id {x[step]}, wanted 0 to {self.num_ids - 1}")


class Fragment(NamedTuple):
    """Steps x, (T, I) or ids (T,): a whole sequence, or a part of one that has more steps than are read at once."""

    name: str
    x: NDArray[Any]
    is_first: bool
    is_last: bool


@dataclass(frozen=True)
class Form:
    """How the input holds its sequences: as lines, as arrays of an npz, or as the rows of one, of T steps each."""

    kind: Literal["lines", "arrays", "rows"]
    count: int | None = None
    steps: int = 0
    lengths: NDArray[np.int64] | None = None
    name: str = ""


class Lines:
    """JSON lines: an array (T, I), or of ids (T,), a line. Long lines are read in parts.

    Parameters
    ----------
    where : for messages
    stream : of bytes; never more is read than is there
    wanted : what every line has to fit
    """

    form = Form("lines")

    def __init__(self, where: str, stream: BinaryIO, wanted: Wanted) -> None:
        self._where, self._stream, self._wanted = where, stream, wanted

    def fragments(self, most_steps: int) -> Iterator[Fragment]:
        """Every sequence in order, in fragments of at most `most_steps` steps; named arr_0, arr_1, ...

        Raises
        ------
        ValueError
            A line is malformed; the message names it.
        """
        read = getattr(self._stream, "read1", self._stream.read)
        buffer = b""
        line, steps, inside, at_end = 1, 0, False, False
        while not at_end:
            block = read(BLOCK)
            at_end = not block
            buffer += block
            while True:
                text, newline, rest = buffer.partition(b"\n")
                is_last = bool(newline) or (at_end and bool(text or inside))
                if is_last:
                    buffer = rest
                elif len(buffer) >= MOST_TEXT and (cut := self._cut(buffer)):
                    text, buffer = buffer[: cut + 1], buffer[cut + 1 :].lstrip()[1:]  # the comma
                    text += b"]"
                elif len(buffer) > MOST_STEP:
                    raise ValueError(f"{self._where}: line {line} has no step that ends within {MOST_STEP} bytes")
                else:
                    break
                x = self._parse(b"[" + text if inside else text, line, steps, inside)
                for start in range(0, max(len(x), 1), most_steps):
                    part = x[start : start + most_steps]
                    ends = is_last and start + most_steps >= len(x)
                    yield Fragment(f"arr_{line - 1}", part, steps == 0 and start == 0, ends)
                line, steps, inside = (line + 1, 0, False) if is_last else (line, steps + len(x), True)

    def _parse(self, text: bytes, line: int, done: int, inside: bool) -> NDArray[Any]:
        """Parse the steps of a line or of a part of it, which begins after `done` steps."""
        where, width = f"{self._where}: line {line}", self._wanted.input_size
        want = f"wanted an array of {self._wanted.text}"
        if not text.strip():
            raise ValueError(f"{where} is empty, {want}")
        if odd := text.translate(None, CHARACTERS):
            raise ValueError(f"{where} has {_shown(text, odd)}, {want}")
        try:
            rows = json.loads(text)
        except RecursionError:
            raise ValueError(f"{where} nests too deep, {want}") from None
        except ValueError as error:
            raise ValueError(f"{where} is no JSON: {str(error).split(':')[0]}, {want}") from None
        if not isinstance(rows, list) or (inside and not rows):
            raise ValueError(f"{where} {'ends behind a comma' if inside else 'is a number'}, {want}")
        if not rows:
            return np.empty((0, *self._wanted.step_shape), self._wanted.dtype)
        if self._wanted.num_ids:
            return self._ids(rows, where, done)
        try:
            numbers = np.array(rows, np.float64)
        except (ValueError, TypeError, OverflowError):
            numbers = None
        if numbers is None or numbers.shape != (len(rows), width):
            raise ValueError(f"{where}: {_misfit(rows, width, done)}, wanted a list of {width} numbers")
        with np.errstate(over="ignore"):
            x = numbers.astype(self._wanted.dtype)
        if not np.isfinite(x).all():
            step = done + int(np.argmin(np.isfinite(x).all(axis=1)))
            raise ValueError(f"{where}: step {step} has a number beyond {self._wanted.dtype}, wanted numbers within")
        return x

    def _ids(self, rows: list[Any], where: str, done: int) -> NDArray[np.int64]:
        for step, value in enumerate(rows, done):
            if type(value) is not int or abs(value) >= 2**63:
                found = "a list" if isinstance(value, list) else value
                raise ValueError(f"{where}: step {step} is {found}, wanted an integer")
        x = np.array(rows, np.int64)
        self._wanted.check(x, where, done)
        return x

    def _cut(self, buffer: bytes) -> int:
        """The last byte of the last complete step that another one follows, in a part of a line; 0 if there is none."""
        return max(buffer.rfind(b",") - 1, 0) if self._wanted.num_ids else _cut(buffer)


def _cut(buffer: bytes) -> int:
    """The end of the last complete step that is followed by another one, in a part of a line; 0 if there is none."""
    end = buffer.rfind(b"]")
    if end > 0 and buffer[end + 1 :].lstrip()[:1] != b",":
        end = buffer.rfind(b"]", 0, end)
    return end if end > 0 and buffer[end + 1 :].lstrip()[:1] == b"," else 0


def _shown(text: bytes, odd: bytes) -> str:
    """Describe the first character that cannot be in an array of numbers."""
    start = text.index(odd[:1])
    return repr(text[start : start + 20].decode("utf-8", "replace"))


def _misfit(rows: list[Any], width: int, done: int) -> str:
    """Describe the first step that is not a list of `width` numbers."""
    for step, row in enumerate(rows, done):
        if not isinstance(row, list):
            return f"step {step} is a number"
        if any(isinstance(value, list) for value in row):
            return f"step {step} has lists inside"
        if len(row) != width:
            return f"step {step} has {len(row)} numbers"
    return "a number is too large"


class Archive:
    """An npz: an array (T, I) for each sequence, or one array (B, T, I) with the lengths of its rows; ids have no I.

    Parameters
    ----------
    path : for messages
    file : open for reading
    wanted : what every array has to fit
    keys : the arrays to read; None for all
    most_steps : steps that may be read at once

    Raises
    ------
    ValueError, TypeError
        Arrays do not fit, or the file is damaged; the message names them. Values have not been read.
    """

    def __init__(self, path: str, file: BinaryIO, wanted: Wanted, keys: Sequence[str] | None, most_steps: int) -> None:
        self._path, self._wanted = path, wanted
        self._archive: ZipFile = open_archive(path, file, MOST_DIRECTORY)
        members = {info.filename.removesuffix(".npy"): info for info in self._archive.infolist()}
        if missing := [key for key in keys or () if key not in members]:
            has = ", ".join(list(members)[:20]) or "nothing"
            raise ValueError(f"{path} has no array {', '.join(missing)}, but {has}")
        self._headers: dict[str, tuple[ZipInfo, tuple[int, ...], np.dtype[Any]]] = {}
        faults: list[str] = []
        for name, info in members.items():
            if keys and name not in keys and name != LENGTHS:
                continue
            try:
                shape, dtype, fortran = npz.read_header(Member(path, self._archive, info), info)
                self._headers[name] = (info, shape, dtype)
                is_c = not fortran or sum(size > 1 for size in shape) < 2 or not all(shape)
                if name != LENGTHS or (keys and name in keys):
                    faults += self._faults(name, shape, dtype, is_c)
            except ValueError as error:
                faults.append(str(error).removeprefix(f"{path}: "))
            if len(faults) > 5:
                break
        names = [name for name in self._headers if name != LENGTHS or (keys and name in keys)]
        rows = [name for name in names if len(self._headers[name][1]) == 2 + len(wanted.step_shape)]
        if rows and len(names) > 1:
            faults.append(f"{rows[0]} is an array (B, T, I) beside other arrays, wanted it alone: --key chooses it")
        if faults:
            raise ValueError(f"{path}: {'; '.join(faults)}")
        self.form = self._rows(rows[0]) if rows else Form("arrays", len(names))
        self._names = names
        if not keys and not rows and LENGTHS in self._headers:
            raise ValueError(f"{path} has lengths, but no array (B, T, I) that they belong to: --key chooses arrays")

    def _faults(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], is_c: bool) -> list[str]:
        step = self._wanted.step_shape
        faults = []
        if len(shape) - len(step) not in (1, 2) or shape[len(shape) - len(step) :] != step:
            wanted = "(T,) or (B, T)" if self._wanted.num_ids else f"(T, {step[0]}) or (B, T, {step[0]})"
            faults.append(f"{name} has shape {shape}, wanted {wanted}")
        elif not is_c:
            faults.append(f"{name} is in Fortran order, wanted C order: numpy.ascontiguousarray")
        try:
            self._wanted.cast(np.empty(0, dtype), name)
        except TypeError as error:
            faults.append(re.sub(r'casting="(\w+)"', r"--casting \1", str(error)))
        return faults

    def _rows(self, name: str) -> Form:
        B, T = self._headers[name][1][:2]
        if LENGTHS not in self._headers:
            return Form("rows", B, T, None, name)
        info, shape, dtype = self._headers[LENGTHS]
        if shape != (B,) or dtype.kind not in "iu":
            raise ValueError(f"{self._path}: lengths is {dtype} of shape {shape}, wanted integers of shape ({B},)")
        member = Member(self._path, self._archive, info)
        npz.read_header(member, info)
        lengths = _read(member, shape, dtype)
        member.finish()
        if B and not (lengths.min() >= 0 and lengths.max() <= T):
            row = int(np.argmax((lengths < 0) | (lengths > T)))
            raise ValueError(f"{self._path}: lengths[{row}] is {lengths[row]}, wanted 0 to {T}")
        return Form("rows", B, T, lengths.astype(np.int64), name)

    def fragments(self, most_steps: int) -> Iterator[Fragment]:
        """Every sequence in the file's order, in fragments of at most `most_steps` steps."""
        if self.form.kind == "rows":
            yield from self._fragments_of_rows(most_steps)
            return
        for name in self._names:
            info, shape, dtype = self._headers[name]
            member = Member(self._path, self._archive, info)
            npz.read_header(member, info)
            yield from self._steps(name, member, shape[0], dtype, most_steps)
            member.finish()

    def _fragments_of_rows(self, most_steps: int) -> Iterator[Fragment]:
        name, T = self.form.name, self.form.steps
        info, (B, _, *step), dtype = self._headers[name]
        member = Member(self._path, self._archive, info)
        npz.read_header(member, info)
        for row in range(B):
            length = T if self.form.lengths is None else int(self.form.lengths[row])
            yield from self._steps(f"arr_{row}", member, length, dtype, most_steps)
            padding = (T - length) * math.prod(step) * dtype.itemsize
            for start in range(0, padding, BLOCK):
                member.read(min(BLOCK, padding - start))
        member.finish()

    def _steps(
        self, name: str, member: Member, count: int, dtype: np.dtype[Any], most_steps: int
    ) -> Iterator[Fragment]:
        for start in range(0, max(count, 1), most_steps):
            stop = min(start + most_steps, count)
            steps = self._wanted.cast(_read(member, (stop - start, *self._wanted.step_shape), dtype), name)
            self._wanted.check(steps, f"{self._path}: {name}", start)
            yield Fragment(name, steps, start == 0, stop == count)


def _read(member: Member, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    array = np.empty(shape, dtype)
    if array.size:
        view = array.reshape(-1).view(np.uint8).data
        for start in range(0, len(view), BLOCK):
            stop = min(start + BLOCK, len(view))
            view[start:stop] = member.read(stop - start)
    return array


Input = Lines | Archive


def open_input(path: str, stream: BinaryIO, wanted: Wanted, keys: Sequence[str] | None, most_steps: int) -> Input:
    """The sequences of an open file, whose beginning tells what it is.

    Raises
    ------
    ValueError, TypeError
        It is an npz that does not fit, or keys are given and it is none.
    """
    peek = getattr(stream, "peek", None)
    if peek is not None and peek(2)[:2] == b"PK":
        if not stream.seekable():
            raise ValueError(f"{path} is an npz in a pipe, wanted a file, or JSON lines")
        return Archive(os.fspath(path), stream, wanted, keys, most_steps)
    if keys:
        raise ValueError(f"--key {keys[0]} is given, but {path} is no npz")
    return Lines(path, stream, wanted)
