"""safetensors: a header of JSON, then the bytes of the arrays. The header is checked before anything is allocated."""

from __future__ import annotations

import math
import mmap
import os
import struct
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..spec import LayerSpec
from . import state_dict
from .json_text import parse_json
from .tensors import WIDENED, Tensor, widen

#: The format's names of types -> ours, and bytes.
DTYPES: dict[str, tuple[str, int]] = {
    "BOOL": ("bool", 1),
    "U8": ("uint8", 1),
    "I8": ("int8", 1),
    "F8_E4M3": ("float8_e4m3fn", 1),
    "F8_E5M2": ("float8_e5m2", 1),
    "I16": ("int16", 2),
    "U16": ("uint16", 2),
    "F16": ("float16", 2),
    "BF16": ("bfloat16", 2),
    "I32": ("int32", 4),
    "U32": ("uint32", 4),
    "F32": ("float32", 4),
    "I64": ("int64", 8),
    "U64": ("uint64", 8),
    "F64": ("float64", 8),
    "C64": ("complex64", 8),
}

#: Bytes of a header whatever the arrays' size is; JSON takes up to some twenty times that in memory.
LEAST_HEADER_LIMIT = 1 << 19

BLOCK = 1 << 16  # values that are widened at a time


@dataclass(frozen=True)
class Entry:
    """One array: the format's name of its type, its shape, and where its bytes are in the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


@dataclass(frozen=True)
class Header:
    metadata: dict[str, str]
    entries: dict[str, Entry]


def is_header_length(head: bytes, file_size: int) -> bool:
    """Whether a file's first eight bytes can be the length of a header that ends inside the file."""
    return len(head) >= 8 and 2 <= struct.unpack("<Q", head[:8])[0] <= file_size - 8


def read_header(path: str, file: BinaryIO) -> Header:
    """Read and check everything but the arrays' values.

    Raises
    ------
    ValueError
        The header is cut, too long, no JSON or has a name twice; a type is unknown, a shape and its bytes do not
        agree; arrays overlap or leave gaps, or do not end where the file ends. The message lists every reason.
    """
    size = os.fstat(file.fileno()).st_size
    file.seek(0)
    head = file.read(8)
    if not is_header_length(head, size):
        raise ValueError(f"{path} is no safetensors file: its header does not end inside its {size} bytes")
    (length,) = struct.unpack("<Q", head)
    data = 8 + length
    if length > (limit := LEAST_HEADER_LIMIT + (size - data) // 16):
        raise ValueError(
            f"{path}: the header has {length} bytes, wanted at most {limit} beside {size - data} of arrays"
        )
    text = file.read(length)
    if len(text) < length:
        raise ValueError(f"{path}: the header is cut")
    header = parse_json(path, text, "the header")
    if not isinstance(header, dict):
        raise ValueError(f"{path}: the header is a {type(header).__name__}, wanted an object")
    metadata = header.pop("__metadata__", {})
    faults: list[str] = []
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        faults.append("__metadata__ is not an object of strings")
    entries: dict[str, Entry] = {}
    for name, value in header.items():
        try:
            entries[name] = _entry(value, data)
        except ValueError as error:
            faults.append(f"{name} {error}")
    if not faults:
        end = data
        for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].stop)):
            if entry.start != end:
                found = "overlaps the array before it" if entry.start < end else "leaves a gap before it"
                faults.append(f"{name} {found}: it begins at byte {entry.start}, wanted {end}")
            end = max(end, entry.stop)
        if end != size:
            faults.append(f"the arrays end at byte {end}, but the file at {size}")
    if faults:
        raise ValueError(f"{path}: {'; '.join(faults[:20])}")
    return Header(metadata, entries)


def _entry(value: Any, data: int) -> Entry:
    """One array's entry; ValueError carries only what is wrong."""
    if not isinstance(value, dict) or value.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError("is not an object of dtype, shape and data_offsets")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(f"is of the unknown type {dtype!r}")
    if not _are_sizes(shape) or len(shape) > 32:
        raise ValueError("has a shape that is not a list of up to 32 integers of at least 0")
    if not _are_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise ValueError("has data_offsets that are not two ascending integers")
    wanted = math.prod(shape) * DTYPES[dtype][1]
    if offsets[1] - offsets[0] != wanted:
        raise ValueError(f"has {offsets[1] - offsets[0]} bytes, but {dtype} of shape {tuple(shape)} has {wanted}")
    return Entry(dtype, tuple(shape), data + offsets[0], data + offsets[1])


def _are_sizes(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 2**63 for value in values)


def tensors(header: Header, file: BinaryIO, view: memoryview) -> dict[str, Tensor]:
    """The arrays of a file that is open and mapped (`view`); those that need no widening are read as views."""

    def reader(entry: Entry) -> Any:
        name, width = DTYPES[entry.dtype]

        def read() -> NDArray[Any]:
            count = (entry.stop - entry.start) // width
            target: type[np.generic] = np.int8 if name == "int8" else WIDENED[name]
            if count and np.dtype(target).itemsize == width and entry.start % width == 0:
                little = np.dtype(target).newbyteorder("<")
                return np.frombuffer(view, little, count, entry.start).reshape(entry.shape)
            array = np.empty(count, target)
            stored = np.dtype("<u2" if name == "bfloat16" else name).newbyteorder("<")
            file.seek(entry.start)  # and not the map, whose pages would count as memory
            for start in range(0, count, BLOCK):
                block = file.read(min(BLOCK, count - start) * width)
                if len(block) != min(BLOCK, count - start) * width:
                    raise ValueError("the file became shorter while it was read")
                widen(np.frombuffer(block, stored), name, array[start : start + BLOCK])
            return array.reshape(entry.shape)

        return read

    return {name: Tensor(e.shape, DTYPES[e.dtype][0], reader(e)) for name, e in header.entries.items()}


def map_file(file: BinaryIO) -> memoryview:
    """A file's bytes, not in memory until they are looked at; freed with the last array that is a view of them."""
    return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def read(path: str, **options: Any) -> LayerSpec:
    """Read a recurrent layer with PyTorch's names; `options` as ``state_dict.spec_from_tensors`` has them."""
    with open(path, "rb") as file:
        header = read_header(path, file)
        return state_dict.spec_from_tensors(path, tensors(header, file, map_file(file)), **options)
