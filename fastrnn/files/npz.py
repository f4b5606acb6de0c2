"""npz: a zip of .npy, read without pickle; sizes are checked before anything is allocated."""

from __future__ import annotations

import ast
import math
import struct
import zipfile
from functools import partial
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..spec import LayerSpec
from . import state_dict
from .archive import BLOCK, Member, open_archive
from .tensors import WIDENED, Tensor

MOST_HEADER = 1 << 12  # bytes; NumPy writes 118


def tensors(path: str, file: BinaryIO) -> dict[str, Tensor]:
    """The arrays of an open file; their headers are read, their values not yet.

    Raises
    ------
    ValueError
        The zip is damaged or hostile, or an array's header is no header, is of objects, or does not agree with the
        size of its member. The message lists every reason.
    """
    archive = open_archive(path, file)
    found: dict[str, Tensor] = {}
    faults: list[str] = []
    for info in archive.infolist():
        name = info.filename.removesuffix(".npy")
        try:
            shape, dtype, _ = read_header(Member(path, archive, info), info)
        except ValueError as error:
            faults.append(str(error).removeprefix(f"{path}: "))
            continue
        found[name] = Tensor(shape, dtype.name, partial(_read_values, path, archive, info))
    if faults:
        raise ValueError(f"{path}: {'; '.join(faults[:20])}")
    return found


def read_header(member: Member, info: zipfile.ZipInfo) -> tuple[tuple[int, ...], np.dtype[Any], bool]:
    """Shape, type and Fortran order; the member is read up to the values.

    Raises
    ------
    ValueError
        It is no array of plain numbers, or its shape does not agree with its size.
    """
    head = member.read(min(10, info.file_size))
    if len(head) < 10 or head[:6] != b"\x93NUMPY" or head[6] not in (1, 2, 3):
        raise ValueError(f"{info.filename} is no NumPy array")
    length, begin = struct.unpack("<H", head[8:10])[0], 10
    if head[6] > 1:
        length, begin = struct.unpack("<I", head[8:10] + member.read(2))[0], 12
    if length > MOST_HEADER or begin + length > info.file_size:
        raise ValueError(f"{info.filename} has a header of {length} bytes, wanted at most {MOST_HEADER}")
    text = member.read(length)
    try:
        header = ast.literal_eval(text.decode("utf-8" if head[6] == 3 else "latin1").strip())
        shape, fortran = header["shape"], header["fortran_order"]
        dtype = np.dtype(header["descr"]) if isinstance(header["descr"], str) else None
        is_header = header.keys() == {"shape", "fortran_order", "descr"} and type(fortran) is bool
    except Exception:  # SyntaxError, ValueError, MemoryError, RecursionError, TypeError, KeyError, ...
        raise ValueError(f"{info.filename} has a header that is none: {text[:60]!r}") from None
    if not is_header or dtype is None or not isinstance(shape, tuple) or len(shape) > 32:
        raise ValueError(f"{info.filename} has a header that is none: {text[:60]!r}")
    if dtype.subdtype is not None or dtype.names is not None:
        raise ValueError(f"{info.filename} holds records of {dtype}, wanted plain numbers")
    if dtype.hasobject:
        raise ValueError(f"{info.filename} holds objects, which are pickled and not read")
    if not all(type(size) is int and 0 <= size < 2**63 for size in shape):
        raise ValueError(f"{info.filename} has shape {shape}, wanted integers of at least 0")
    wanted = math.prod(shape) * dtype.itemsize
    if begin + length + wanted != info.file_size:
        raise ValueError(
            f"{info.filename} has {info.file_size - begin - length} bytes, but {dtype} of shape {shape} has {wanted}"
        )
    return shape, dtype, fortran


def _read_values(path: str, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> NDArray[Any]:
    member = Member(path, archive, info)
    shape, dtype, fortran = read_header(member, info)
    array = np.empty(math.prod(shape), WIDENED[dtype.name])
    step = max(BLOCK // dtype.itemsize, 1)
    for start in range(0, len(array), step):
        stop = min(start + step, len(array))
        array[start:stop] = np.frombuffer(member.read((stop - start) * dtype.itemsize), dtype)
    member.finish()
    return array.reshape(shape, order="F" if fortran else "C")


def read(path: str, **options: Any) -> LayerSpec:
    """Read a recurrent layer with PyTorch's names; `options` as ``state_dict.spec_from_tensors`` has them."""
    with open(path, "rb") as file:
        return state_dict.spec_from_tensors(path, tensors(path, file), **options)
