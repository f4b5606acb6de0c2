"""The ``.index`` file of a TensorFlow checkpoint: a sorted table of what each variable is and where its bytes are.

TensorFlow reads it as well, but ends the process where a shape in it is impossible, and takes the memory that it
declares. So everything that it says is checked here against the sizes of the data files before TensorFlow sees it.
The layout is that of LevelDB's tables (``table/format.h``), the entries are TensorFlow's ``tensor_bundle.proto``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

FOOTER = 48  # bytes: two places of blocks as varints, padded to 40, and the magic number
MAGIC = 0xDB4775248B80FB57
TRAILER = 5  # bytes after a block: its compression and its checksum

MOST_BYTES = 4 << 20  # of an index
MOST_ENTRIES = 20_000  # variables, and slices of them
MOST_NAMES = 4 << 20  # bytes of all names; in the table they share their beginnings
MOST_NAME = 4096  # bytes
MOST_AXES = 254  # TensorFlow's

#: TensorFlow's numbers of types -> name and bytes of an element; those of variables that have a fixed size.
TYPES: dict[int, tuple[str, int]] = {
    1: ("float32", 4),
    2: ("float64", 8),
    3: ("int32", 4),
    4: ("uint8", 1),
    5: ("int16", 2),
    6: ("int8", 1),
    8: ("complex64", 8),
    9: ("int64", 8),
    10: ("bool", 1),
    11: ("qint8", 1),
    12: ("quint8", 1),
    13: ("qint32", 4),
    14: ("bfloat16", 2),
    15: ("qint16", 2),
    16: ("quint16", 2),
    17: ("uint16", 2),
    18: ("complex128", 16),
    19: ("float16", 2),
    22: ("uint32", 4),
    23: ("uint64", 8),
}


class Damaged(ValueError):
    """What is wrong in an index, without the file's name."""


@dataclass(frozen=True)
class Entry:
    """One tensor: `size` bytes at `offset` of data file number `shard`; in slices, those are elsewhere."""

    dtype: str
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    in_slices: bool


def read_index(prefix: str) -> dict[str, Entry]:
    """Every variable of a checkpoint, checked against the sizes of its data files.

    Parameters
    ----------
    prefix : the checkpoint's path without ``.index``

    Raises
    ------
    ValueError
        The index is damaged or hostile, or the data files are shorter than it says.
    NotImplementedError
        It is too large, or compressed.
    OSError
        A file cannot be read.
    """
    path = f"{prefix}.index"
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > MOST_BYTES:
            raise NotImplementedError(f"{path} has {size} bytes, wanted at most {MOST_BYTES}")
        data = file.read(size)
    try:
        return _check(prefix, dict(_entries(data)))
    except Damaged as error:
        raise ValueError(f"{path} is no index of a TensorFlow checkpoint: {error}") from None


def _entries(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of the table, in their order."""
    if len(data) < FOOTER or int.from_bytes(data[-8:], "little") != MAGIC:
        raise Damaged(f"it has {len(data)} bytes, and its end is not a table's")
    footer = data[-FOOTER:]
    _, at = _varint(footer, 0)
    _, at = _varint(footer, at)
    start, at = _varint(footer, at)
    size, _ = _varint(footer, at)
    taken = count = names = 0
    last = None
    for _, place in _block(data, start, size):
        start, at = _varint(place, 0)
        size, _ = _varint(place, at)
        taken += size + TRAILER
        if taken > len(data):
            raise Damaged("its blocks overlap")
        for key, value in _block(data, start, size):
            if last is not None and key <= last:
                raise Damaged(f"{key!r:.100} follows {last!r:.100}")
            last, count, names = key, count + 1, names + len(key)
            if count > MOST_ENTRIES or names > MOST_NAMES:
                raise NotImplementedError(f"the checkpoint has more than {MOST_ENTRIES} variables, or too long names")
            yield key, value


def _block(data: bytes, start: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of one block; a key shares its first bytes with the one before."""
    end = start + size
    if size < 4 or end + TRAILER > len(data) - FOOTER:
        raise Damaged(f"a block is said to be at {start} to {end}, beyond its {len(data)} bytes")
    if data[end] != 0:
        raise NotImplementedError("the index of the checkpoint is compressed, which TensorFlow's own are not")
    restarts = int.from_bytes(data[end - 4 : end], "little")
    end -= 4 * (restarts + 1)
    if end < start:
        raise Damaged(f"a block of {size} bytes has {restarts} restarts")
    key, at = b"", start
    block = data[:end]
    while at < end:
        shared, at = _varint(block, at)
        rest, at = _varint(block, at)
        length, at = _varint(block, at)
        if shared > len(key) or shared + rest > MOST_NAME or at + rest + length > end:
            raise Damaged(f"an entry at {at} is longer than its block, or its name is")
        key = key[:shared] + block[at : at + rest]
        at += rest
        yield key, block[at : at + length]
        at += length


def _check(prefix: str, table: dict[bytes, bytes]) -> dict[str, Entry]:
    """Check entries against each other and the data files; slices are left out."""
    header = table.pop(b"", None)
    if header is None:
        raise Damaged("it has no header")
    fields = dict(_fields(header))
    shards = _number(fields.get(1, 0))
    if not 1 <= shards <= 99_999 or _number(fields.get(2, 0)) != 0:
        raise Damaged(
            f"it has {shards} data files, of byte order {_number(fields.get(2, 0))}: wanted 1 to 99999, and 0"
        )
    variables: dict[str, Entry] = {}
    entries: list[Entry] = []
    for key, value in table.items():
        try:
            name = "" if key[:1] == b"\0" else key.decode()  # keys of slices begin with a zero byte
        except UnicodeDecodeError:
            raise Damaged(f"the name {key!r:.100} is no UTF-8") from None
        entry = _entry(name or "a slice", value)
        if entry.shard >= shards:
            raise Damaged(f"{name or 'a slice'} is in data file {entry.shard} of {shards}")
        entries.append(entry)
        if name:
            variables[name] = entry
    in_files = {
        shard: os.path.getsize(f"{prefix}.data-{shard:05}-of-{shards:05}")
        for shard in sorted({entry.shard for entry in entries})
    }
    ends = dict.fromkeys(in_files, 0)
    for entry in sorted(
        (entry for entry in entries if not entry.in_slices), key=lambda entry: (entry.offset, entry.size)
    ):
        end, available = entry.offset + entry.size, in_files[entry.shard]
        if end > available:
            file = f"{prefix}.data-{entry.shard:05}-of-{shards:05}"
            raise ValueError(f"{file} has {available} bytes, but {prefix}.index says that there are {end}")
        if entry.size and entry.offset < ends[entry.shard]:
            raise Damaged(f"tensors overlap at byte {entry.offset} of data file {entry.shard}")
        ends[entry.shard] = max(ends[entry.shard], end)
    declared = sum(entry.size for entry in variables.values() if entry.in_slices)
    if declared > sum(in_files.values()):
        raise Damaged(f"its variables in slices have {declared} bytes, but its files have {sum(in_files.values())}")
    return variables


def _entry(name: str, value: bytes) -> Entry:
    """A BundleEntryProto."""
    fields: dict[int, int | bytes] = {}
    in_slices = False
    for number, found in _fields(value):
        in_slices = in_slices or number == 7
        fields[number] = found
    shape = _shape(name, fields.get(2, b""))
    kind = _number(fields.get(1, 0))
    size, offset = _number(fields.get(5, 0)), _number(fields.get(4, 0))
    dtype, item = TYPES.get(kind, (f"of TensorFlow's type {kind}", 0))
    if item and not in_slices and prod(shape) * item != size:
        raise Damaged(f"{name} is {dtype} of shape {shape}, but has {size} bytes")
    if in_slices:
        size = prod(shape) * item
    return Entry(dtype, shape, _number(fields.get(3, 0)), offset, size, in_slices)


def _shape(name: str, value: int | bytes) -> tuple[int, ...]:
    """A TensorShapeProto."""
    axes = []
    if isinstance(value, int):
        raise Damaged(f"the shape of {name} is a number")
    for number, found in _fields(value):
        if number == 3 and found:
            raise Damaged(f"the shape of {name} is not known")
        if number == 2:
            if isinstance(found, int):
                raise Damaged(f"an axis of {name} is no message")
            axes.append(_number(dict(_fields(found)).get(1, 0)))
    if len(axes) > MOST_AXES or any(axis >= 1 << 63 for axis in axes) or prod(max(axis, 1) for axis in axes) >= 1 << 60:
        shape = ", ".join(map(str, axes[:8]))
        raise Damaged(f"{name} has {len(axes)} axes, {shape}{', ...' if len(axes) > 8 else ''}: there is no such array")
    return tuple(axes)


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Numbers and values of a protocol buffer's fields."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        wire = tag & 7
        if wire == 0:
            number, at = _varint(message, at)
            yield tag >> 3, number
            continue
        if wire == 2:
            length, at = _varint(message, at)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise Damaged(f"a field is of wire type {wire}")
        if at + length > len(message):
            raise Damaged("a field is longer than its message")
        yield tag >> 3, message[at : at + length]
        at += length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of 7 bits a byte, and where it ends."""
    value = 0
    for shift in range(0, 64, 7):
        if at >= len(data):
            raise Damaged("a number is cut off")
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            if value >= 1 << 64:
                raise Damaged("a number has more than 64 bits")
            return value, at
    raise Damaged("a number has more than 64 bits")


def _number(value: int | bytes) -> int:
    if isinstance(value, int):
        return value
    raise Damaged("a number is no number")
