"""Outputs written one after the other, as JSON lines or as npz, in bounded memory."""

from __future__ import annotations

import json
import shutil
import tempfile
import zipfile
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from .sequences import LENGTHS, Form


class Results(Protocol):
    """Takes outputs in the order of the sequences."""

    def whole(self, name: str, y: NDArray[Any]) -> None:
        """A sequence's output: (T, O), or (O,) where a sequence has one output alone."""

    def part(self, name: str, y: NDArray[Any], is_first: bool, is_last: bool) -> None:
        """A part (T, O) of the output of a sequence."""

    def finish(self) -> None:
        """After the last sequence."""


class Lines:
    """A line of JSON for each sequence."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._is_empty = True

    def whole(self, name: str, y: NDArray[Any]) -> None:
        self._stream.write(_text(y) + b"\n")

    def part(self, name: str, y: NDArray[Any], is_first: bool, is_last: bool) -> None:
        text = _text(y)[1:-1]
        if is_first:
            self._stream.write(b"[")
            self._is_empty = True
        if text and not self._is_empty:
            self._stream.write(b",")
        self._is_empty &= not text
        self._stream.write(text + (b"]\n" if is_last else b""))

    def finish(self) -> None:
        self._stream.flush()


def _text(y: NDArray[Any]) -> bytes:
    return json.dumps(y.tolist(), separators=(",", ":")).encode()


class Arrays:
    """An npz with an array for each sequence, written member by member."""

    def __init__(self, file: BinaryIO) -> None:
        self._archive = zipfile.ZipFile(file, "w")
        self._steps: Any = None

    def whole(self, name: str, y: NDArray[Any]) -> None:
        _write_array(self._archive, name, y)

    def part(self, name: str, y: NDArray[Any], is_first: bool, is_last: bool) -> None:
        """The header has the number of steps, which is known at the end: until then they are in a temporary file."""
        if is_first:
            self._steps, self._count = tempfile.TemporaryFile(), 0  # noqa: SIM115 - closed below
        self._steps.write(_bytes(y))
        self._count += len(y)
        if is_last:
            with self._steps, _open_member(self._archive, name) as member:
                _write_header(member, y.dtype, (self._count, *y.shape[1:]))
                self._steps.seek(0)
                shutil.copyfileobj(self._steps, member, 1 << 20)

    def finish(self) -> None:
        self._archive.close()


class Rows:
    """An npz with one array (B, S, O), zeros past the rows' ends, and their lengths where the input has lengths.

    Where each sequence has one output alone, the array is (B, O), and the lengths are those of the input.
    """

    def __init__(
        self, file: BinaryIO, form: Form, steps_after: int, shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> None:
        self._archive = zipfile.ZipFile(file, "w")
        self._given = form.lengths
        self._lengths: list[int] = []  # of the outputs so far
        self._is_pooled = len(shape) == 1
        steps = () if self._is_pooled else (steps_after,)
        self._bytes = int(np.prod((*steps, shape[-1]))) * dtype.itemsize
        self._member = _open_member(self._archive, "y")
        _write_header(self._member, dtype, (form.count or 0, *steps, shape[-1]))
        self._left = 0

    def whole(self, name: str, y: NDArray[Any]) -> None:
        self.part(name, y, True, True)

    def part(self, name: str, y: NDArray[Any], is_first: bool, is_last: bool) -> None:
        if is_first:
            self._left = self._bytes
            self._lengths.append(0)
        self._lengths[-1] += len(y)
        self._member.write(_bytes(y))
        self._left -= y.nbytes
        if is_last:
            for start in range(0, self._left, 1 << 20):
                self._member.write(bytes(min(1 << 20, self._left - start)))

    def finish(self) -> None:
        self._member.close()
        if self._given is not None:
            lengths = self._given if self._is_pooled else np.array(self._lengths, np.int64)
            _write_array(self._archive, LENGTHS, lengths)
        self._archive.close()


def _write_array(archive: zipfile.ZipFile, name: str, array: NDArray[Any]) -> None:
    with _open_member(archive, name) as member:
        _write_header(member, array.dtype, array.shape)
        member.write(_bytes(array))


def _bytes(array: NDArray[Any]) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _open_member(archive: zipfile.ZipFile, name: str) -> Any:
    """A member of any size and a fixed date, so that the same outputs are the same file."""
    return archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True)


def _write_header(file: Any, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    descr = np.lib.format.dtype_to_descr(dtype)
    np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})


def open_results(
    file: BinaryIO, is_npz: bool, form: Form, steps_after: int, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> Results:
    """What writes outputs to a file that is open: npz of the input's form, or JSON lines.

    Parameters
    ----------
    file : open for writing
    is_npz : JSON lines if False
    form : of the input
    steps_after : how many steps the output of a row of form.steps steps has
    shape : of one step's output (1, O), or (O,) where a sequence has one output alone
    dtype : of the outputs
    """
    if not is_npz:
        return Lines(file)
    return Rows(file, form, steps_after, shape, dtype) if form.kind == "rows" else Arrays(file)
