"""The part of HDF5 that Keras writes, read in bounded time and memory.

Of the format's specification, version 3.0: superblocks 0 to 3, object headers 1 and 2, groups as symbol tables or as
links in the header, attributes in the header, arrays in one piece. Everything else is refused by name: soft and
external links, external and virtual storage, chunks and filters, dense storage, shared types. HDF5's own library is not
used: one changed byte can make it take gigabytes, or never return (seen with HDF5 1.14).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from .tensors import WIDENED, Tensor, widen

SIGNATURE = b"\x89HDF\r\n\x1a\n"

MOST_MESSAGES = 1 << 12  # of one object
MOST_BLOCK = 1 << 20  # bytes of one block that is not an array
MOST_CHILDREN = 1 << 14  # of one group
MOST_TEXT = 1 << 20  # bytes of an attribute's texts together
MOST_WORK = 1 << 20  # blocks and entries that are looked at before the arrays are read, a second or two

#: (size, exponent's place and bits, mantissa's place and bits, bias) -> NumPy's name
_FLOATS = {
    (2, 10, 5, 0, 10, 15): "float16",
    (2, 7, 8, 0, 7, 127): "bfloat16",
    (4, 23, 8, 0, 23, 127): "float32",
    (8, 52, 11, 0, 52, 1023): "float64",
}


@dataclass
class _Object:
    """The messages of an object's header that are used, and its links if they are stored in the header."""

    messages: list[tuple[int, bytes]]

    def first(self, kind: int) -> bytes | None:
        return next((data for found, data in self.messages if found == kind), None)


@dataclass
class _Type:
    """The kind of an element, number or text, and its size in bytes."""

    name: str  # of NumPy's, "text", "texts" (of any length), or what it is
    size: int
    big: bool


class File:
    """An open HDF5 file. Everything that is wrong in it raises ValueError, what is not read NotImplementedError.

    Parameters
    ----------
    path : what messages call the file
    file : its bytes, seekable; kept open by the caller
    """

    def __init__(self, path: str, file: BinaryIO) -> None:
        self._path, self._file = path, file
        self._size = file.seek(0, 2)
        self._objects: dict[int, _Object] = {}
        self._groups: dict[int, dict[str, int]] = {}
        self._work = 0
        head = self._bytes(0, 9)
        if head[:8] != SIGNATURE:
            raise self._damaged("it has no signature of HDF5")
        version = head[8]
        if version > 3:
            raise NotImplementedError(f"{path}: HDF5 with a superblock of version {version} is not read")
        self._offset, self._length = self._bytes(13, 2) if version < 2 else self._bytes(9, 2)
        if self._offset not in (4, 8) or self._length not in (4, 8):
            raise self._damaged(f"its addresses have {self._offset} bytes and its sizes {self._length}, wanted 4 or 8")
        at = {0: 24, 1: 28}.get(version, 12)
        if self._address(self._bytes(at, self._offset), 0) != 0:
            raise NotImplementedError(f"{path}: HDF5 behind a block of the user's is not read")
        end = self._address(self._bytes(at + 2 * self._offset, self._offset), 0)
        if end > self._size:
            raise self._damaged(f"it has {self._size} bytes, wanted {end}: it was cut off")
        at += (4 if version < 2 else 3) * self._offset + (self._offset if version < 2 else 0)
        self._root = self._address(self._bytes(at, self._offset), 0)

    # Numbers and bytes

    def _damaged(self, reason: str) -> ValueError:
        return ValueError(f"{self._path} is damaged: {reason}")

    def _bytes(self, offset: int, size: int) -> bytes:
        """Bytes at an address; all blocks but arrays are read here, and are small."""
        if size > MOST_BLOCK or offset + size > self._size:
            raise self._damaged(f"a block ends at byte {offset + size}, but the file has {self._size}")
        self._count(1 + size // 256)
        return self._stored(offset, size)

    def _stored(self, offset: int, size: int) -> bytes:
        self._file.seek(offset)
        data = self._file.read(size)
        if len(data) != size:
            raise self._damaged(f"it ends at byte {offset + len(data)}")
        return data

    def _count(self, work: int) -> None:
        self._work += work
        if self._work > MOST_WORK:
            raise self._damaged("its groups and attributes do not end")

    def _address(self, data: bytes, at: int) -> int:
        return self._integer(data, at, self._offset)

    def _integer(self, data: bytes, at: int, size: int) -> int:
        if at + size > len(data):
            raise self._damaged("a block ends too early")
        return int.from_bytes(data[at : at + size], "little")

    def _is_undefined(self, address: int) -> bool:
        return address == (1 << (8 * self._offset)) - 1

    # Objects

    def _object(self, address: int) -> _Object:
        if address not in self._objects:
            if len(self._objects) > MOST_CHILDREN:
                raise self._damaged(f"more than {MOST_CHILDREN} objects are read")
            self._objects[address] = self._read_object(address)
        return self._objects[address]

    def _read_object(self, address: int) -> _Object:
        start = self._bytes(address, 16)
        blocks: list[tuple[int, int]] = []
        if start[:4] == b"OHDR":
            is_new, flags = True, start[5]
            at = address + 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
            width = 1 << (flags & 3)
            size = int.from_bytes(self._bytes(at, width), "little")
            blocks.append((at + width, size))
        elif start[0] == 1:
            is_new, flags = False, 0
            blocks.append((address + 16, int.from_bytes(start[8:12], "little")))
        else:
            raise self._damaged(f"there is no object at byte {address}")
        messages: list[tuple[int, bytes]] = []
        total = 0
        while blocks:
            offset, size = blocks.pop(0)
            total += size
            if total > MOST_BLOCK:
                raise self._damaged(f"the object at byte {address} has a header of more than {MOST_BLOCK} bytes")
            for kind, data in self._messages(self._bytes(offset, size), is_new, bool(flags & 4)):
                if kind == 0x10:
                    block = self._address(data, 0), self._integer(data, self._offset, self._length)
                    if is_new:  # "OCHK" before, a check sum behind
                        block = block[0] + 4, block[1] - 8
                        if block[1] < 0 or self._bytes(block[0] - 4, 4) != b"OCHK":
                            raise self._damaged(f"the object at byte {address} has no continuation where it says")
                    blocks.append(block)
                messages.append((kind, data))
                if len(messages) > MOST_MESSAGES or len(blocks) > MOST_MESSAGES:
                    raise self._damaged(f"the object at byte {address} has more than {MOST_MESSAGES} messages")
        return _Object(messages)

    def _messages(self, block: bytes, is_new: bool, has_order: bool) -> Iterator[tuple[int, bytes]]:
        head = (6 if has_order else 4) if is_new else 8
        at = 0
        while at + head <= len(block):
            if is_new:
                kind, size, flags = block[at], int.from_bytes(block[at + 1 : at + 3], "little"), block[at + 3]
            else:
                kind, size, flags = struct.unpack_from("<HHB", block, at)
            at += head
            self._count(1)
            if at + size > len(block):
                raise self._damaged("a message is longer than its block")
            if flags & 2 and kind in (0x01, 0x03, 0x08, 0x0C):
                raise NotImplementedError(
                    f"{self._path}: an object of HDF5 shares a type with others, which is not read"
                )
            yield kind, block[at : at + size]
            at += size

    def _children(self, address: int) -> dict[str, int]:
        """Names and addresses in a group; a link that is not to be followed has the address -1 or -2."""
        if address not in self._groups:
            self._groups[address] = self._read_group(address)
        return self._groups[address]

    def _read_group(self, address: int) -> dict[str, int]:
        group = self._object(address)
        found: dict[str, int] = {}
        table = group.first(0x11)
        if table is not None:
            heap = self._bytes(self._address(table, self._offset), 8 + 2 * self._length + self._offset)
            if heap[:4] != b"HEAP":
                raise self._damaged("a group has no names")
            names_size = self._integer(heap, 8, self._length)
            names = self._bytes(self._address(heap, 8 + 2 * self._length), names_size)
            for name_at, child, kind in self._entries(self._address(table, 0)):
                end = names.find(b"\0", name_at)
                if end < 0:
                    raise self._damaged("a name has no end")
                found[self._text(names[name_at:end])] = -1 if kind == 2 else child
            return found
        for kind, data in group.messages:
            if kind == 0x02:
                at = 2 + (8 if self._integer(data, 1, 1) & 1 else 0)
                if not self._is_undefined(self._address(data, at)):
                    raise NotImplementedError(f"{self._path}: HDF5's groups with dense storage are not read")
            elif kind == 0x06:
                name, child = self._link(data)
                found[name] = child
        return found

    def _entries(self, address: int) -> Iterator[tuple[int, int, int]]:
        """For each member of an old-format group: the place of its name, its header address, its cache type."""
        nodes, seen, count = [address], 0, 0
        while nodes:
            node = nodes.pop(0)
            seen += 1
            if seen > MOST_CHILDREN:
                raise self._damaged("a group's tree does not end")
            head = self._bytes(node, 8)
            if head[:4] == b"TREE":
                used = int.from_bytes(head[6:8], "little")
                pair = self._length + self._offset
                body = self._bytes(node + 8 + 2 * self._offset, used * pair)
                nodes += [self._address(body, i * pair + self._length) for i in range(used)]
                if len(nodes) > MOST_CHILDREN:
                    raise self._damaged("a group's tree does not end")
            elif head[:4] == b"SNOD":
                used = int.from_bytes(head[6:8], "little")
                size = 2 * self._offset + 24
                body = self._bytes(node + 8, used * size)
                self._count(used)
                count += used
                if count > MOST_CHILDREN:
                    raise self._damaged(f"a group has more than {MOST_CHILDREN} members")
                for i in range(used):
                    at = i * size
                    yield (
                        self._address(body, at),
                        self._address(body, at + self._offset),
                        self._integer(body, at + 2 * self._offset, 4),
                    )
            else:
                raise self._damaged(f"there is no group's tree at byte {node}")

    def _link(self, data: bytes) -> tuple[str, int]:
        flags, at = self._integer(data, 1, 1), 2
        kind = 0
        if flags & 8:
            kind, at = self._integer(data, at, 1), at + 1
        at += (8 if flags & 4 else 0) + (1 if flags & 16 else 0)
        width = 1 << (flags & 3)
        size = self._integer(data, at, width)
        at += width
        name = self._text(data[at : at + size])
        return name, self._address(data, at + size) if kind == 0 else -1 if kind == 1 else -2

    def _text(self, data: bytes) -> str:
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            raise self._damaged(f"a text is no UTF-8: {data[:20]!r}") from None

    def _find(self, path: str) -> _Object | None:
        """The object at a path, None if there is none."""
        address = self._root
        for part in path.split("/") if path else ():
            child = self._children(address).get(part)
            if child is None:
                return None
            if child < 0:
                kind = "a soft link" if child == -1 else "a link to another file"
                raise ValueError(f"{self._path}: {path!r} leads through {kind}, which is not followed")
            address = child
        return self._object(address)

    def has_group(self, path: str) -> bool:
        """Return whether there is a group at a path; "" is the root."""
        found = self._find(path)
        return found is not None and any(kind in (0x02, 0x06, 0x0A, 0x11) for kind, _ in found.messages)

    def children(self, path: str, most: int) -> list[str]:
        """Names in a group, at most `most` of them; none where there is no group."""
        address = self._root
        for part in path.split("/") if path else ():
            child = self._children(address).get(part, -1)
            if child < 0:
                return []
            address = child
        return list(self._children(address))[:most]

    # Attributes

    def text(self, path: str, attribute: str) -> str | None:
        """An attribute that is a text; None where there is none."""
        values = self._attribute(path, attribute)
        if values is None:
            return None
        if len(values) != 1:
            raise ValueError(f"{self._path}: the attribute {attribute} of {path or '/'!r} is no text")
        return values[0]

    def texts(self, path: str, attribute: str) -> list[str] | None:
        """An attribute that is a list of texts; None where there is none.

        Keras divides long ones: attribute0, attribute1, ...
        """
        values = self._attribute(path, attribute)
        if values is not None:
            return values
        joined: list[str] = []
        number = 0
        while (part := self._attribute(path, f"{attribute}{number}")) is not None:
            joined += part
            number += 1
        return joined if number else None

    def _attribute(self, path: str, attribute: str) -> list[str] | None:
        found = self._find(path)
        if found is None:
            return None
        wanted = attribute.encode()
        for kind, data in found.messages:
            if kind == 0x15:
                at = 2 + (2 if self._integer(data, 1, 1) & 1 else 0)
                if not self._is_undefined(self._address(data, at)):
                    raise NotImplementedError(f"{self._path}: HDF5's attributes in dense storage are not read")
            if kind != 0x0C or wanted not in data:
                continue
            version = data[0]
            if version not in (1, 2, 3) or len(data) < 9:
                raise self._damaged(f"an attribute of {path or '/'!r} has version {version}")
            sizes = struct.unpack_from("<HHH", data, 2)
            at = 9 if version == 3 else 8
            parts = []
            for size in sizes:
                parts.append(data[at : at + size])
                at += size if version > 1 else -(-size // 8) * 8
            if parts[0].rstrip(b"\0") != wanted:
                continue
            name = f"the attribute {attribute} of {path or '/'!r}"
            if version > 1 and data[1] & 3:
                raise NotImplementedError(f"{self._path}: {name} shares its type, which is not read")
            return self._texts(name, self._type(parts[1], name), self._shape(parts[2], name), data[at:])
        return None

    def _texts(self, name: str, dtype: _Type, shape: tuple[int, ...] | None, data: bytes) -> list[str]:
        count = 0 if shape is None else math.prod(shape)
        if count == 0:
            return []
        if dtype.name not in ("text", "texts"):
            raise ValueError(f"{self._path}: {name} is of type {dtype.name}, wanted texts")
        if dtype.size == 0 or count * dtype.size > len(data):
            raise self._damaged(f"{name} ends too early")
        items = [data[i * dtype.size : (i + 1) * dtype.size] for i in range(count)]
        if dtype.name == "text":
            return [self._text(item.rstrip(b"\0 ")) for item in items]
        texts, total = [], 0
        heaps: dict[int, dict[int, bytes]] = {}
        for item in items:
            size, address = self._integer(item, 0, 4), self._address(item, 4)
            index = self._integer(item, 4 + self._offset, 4)
            total += size
            if total > MOST_TEXT:
                raise ValueError(f"{self._path}: {name} is longer than {MOST_TEXT} bytes")
            if size and address not in heaps:
                heaps[address] = self._heap(address)
                if sum(len(text) for heap in heaps.values() for text in heap.values()) > 4 * MOST_TEXT:
                    raise ValueError(f"{self._path}: {name} is longer than {MOST_TEXT} bytes")
            text = heaps[address].get(index, b"") if size else b""
            if len(text) != size:
                raise self._damaged(f"{name} has a text of {size} bytes, but {len(text)} are there")
            texts.append(self._text(text.rstrip(b"\0")))
        return texts

    def _heap(self, address: int) -> dict[int, bytes]:
        """The objects of a global heap, by their numbers."""
        head = self._bytes(address, 8 + self._length)
        size = self._integer(head, 8, self._length)
        if head[:5] != b"GCOL\x01" or size < len(head):
            raise self._damaged(f"there is no heap of texts at byte {address}")
        block = self._bytes(address, size)
        objects: dict[int, bytes] = {}
        at, width = len(head), 8 + self._length
        while at + width <= size:
            index = self._integer(block, at, 2)
            length = self._integer(block, at + 8, self._length)
            self._count(1)
            if index == 0:
                break
            if at + width + length > size:
                raise self._damaged(f"a text of the heap at byte {address} is longer than the heap")
            objects[index] = block[at + width : at + width + length]
            at += width + -(-length // 8) * 8
        return objects

    # Types and arrays

    def _shape(self, data: bytes, name: str) -> tuple[int, ...] | None:
        version, rank = self._integer(data, 0, 1), self._integer(data, 1, 1)
        if version not in (1, 2) or rank > 32:
            raise self._damaged(f"{name} has a shape of version {version} and rank {rank}")
        if version == 2 and self._integer(data, 3, 1) == 2:
            return None
        at = 8 if version == 1 else 4
        return tuple(self._integer(data, at + i * self._length, self._length) for i in range(rank))

    def _type(self, data: bytes, name: str) -> _Type:
        if len(data) < 8:
            raise self._damaged(f"{name} has no type")
        kind, bits, size = data[0] & 15, data[1], int.from_bytes(data[4:8], "little")
        if kind == 1 and len(data) >= 20:
            offset, precision, *parts = struct.unpack_from("<HHBBBBI", data, 8)
            found = _FLOATS.get((size, *parts))
            is_usual = offset == 0 and precision == 8 * size and data[2] == 8 * size - 1 and not bits & 0x40
            return _Type(found if found and is_usual else f"a float of {size} bytes", size, bool(bits & 1))
        if kind == 3:
            return _Type("text", size, False)
        if kind == 9 and bits & 15 == 1:
            return _Type("texts", size, False)
        kinds = {0: "integers", 4: "bits", 5: "opaque", 6: "a compound", 7: "references", 8: "an enumeration"}
        return _Type(kinds.get(kind, f"class {kind}"), size, False)

    def tensor(self, path: str) -> Tensor | None:
        """The array at a path, of floating-point numbers, checked and not yet read; None if there is no object.

        Raises
        ------
        ValueError
            It is no array; its numbers are of another type or are in another file, or are not there in the size that
            it declares.
        NotImplementedError
            It is stored in chunks, or in another way that Keras does not use.
        """
        found = self._find(path)
        if found is None:
            return None
        space, kind, layout = (found.first(message) for message in (0x01, 0x03, 0x08))
        if space is None or kind is None or layout is None:
            raise ValueError(f"{self._path}: {path!r} is no array")
        if found.first(0x07) is not None:
            raise ValueError(f"{self._path}: {path!r} has its numbers in another file")
        dtype, shape = self._type(kind, repr(path)), self._shape(space, repr(path))
        if shape is None:
            raise ValueError(f"{self._path}: {path!r} is empty, wanted an array")
        name = dtype.name
        if name == "opaque" and dtype.size == 2 and self._attribute(path, "dtype") == ["bfloat16"]:
            name = "bfloat16"
        if name not in WIDENED:
            raise ValueError(f"{self._path}: {path!r} is of type {name}, wanted {', '.join(WIDENED)}")
        wanted = math.prod(shape) * dtype.size
        version, layout_class = self._integer(layout, 0, 1), self._integer(layout, 1, 1)
        if version not in (3, 4) or layout_class > 1:
            how = {2: "in chunks", 3: "as a virtual array, made of others"}.get(layout_class, "in an old way")
            how = how if version in (3, 4) else f"by a layout of version {version}"
            raise NotImplementedError(
                f"{self._path}: {path!r} is stored {how}, which Keras does not do and is not read"
            )
        if layout_class == 0:
            stored, data = self._integer(layout, 2, 2), layout[4:]
            if stored != wanted or len(data) < wanted:
                raise ValueError(f"{self._path}: {path!r} has {stored} bytes, but {name} of shape {shape} has {wanted}")
            return Tensor(shape, name, self._reader(name, shape, dtype, data[:wanted], 0))
        address, stored = self._address(layout, 2), self._integer(layout, 2 + self._offset, self._length)
        if stored != wanted:
            raise ValueError(f"{self._path}: {path!r} has {stored} bytes, but {name} of shape {shape} has {wanted}")
        if wanted and address + wanted > self._size:
            raise ValueError(
                f"{self._path}: {path!r} ends at byte {address + wanted}, but the file has {self._size}"
                if not self._is_undefined(address)
                else f"{self._path}: {path!r} was never written"
            )
        return Tensor(shape, name, self._reader(name, shape, dtype, None, address))

    def _reader(self, name: str, shape: tuple[int, ...], dtype: _Type, data: bytes | None, address: int) -> Any:
        raw = np.dtype(np.uint16 if name == "bfloat16" else name).newbyteorder(">" if dtype.big else "<")

        def read() -> NDArray[Any]:
            values = np.empty(math.prod(shape), WIDENED[name])
            step = max((1 << 18) // raw.itemsize, 1)
            for start in range(0, len(values), step):
                stop = min(start + step, len(values))
                begin, size = start * raw.itemsize, (stop - start) * raw.itemsize
                block = self._stored(address + begin, size) if data is None else data[begin : begin + size]
                widen(np.frombuffer(block, raw), name, values[start:stop])
            return values.reshape(shape)

        return read
