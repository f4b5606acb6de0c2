"""The wire format of Protocol Buffers, walked through before a parser takes memory for what a file says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

#: How deep messages may be inside each other; a body of a loop inside another takes three levels.
MOST_NESTED = 60

#: How many messages a file may have: so many, and one more for each so many of its bytes. In memory an empty message of
#: two bytes takes some 75 times as much.
MOST_MESSAGES, BYTES_OF_A_MESSAGE = 1 << 16, 32

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def check(path: str, data: memoryview, descriptor: Any) -> None:
    """Check that lengths fit into the file, texts are UTF-8, and messages neither too many nor nested too deep.

    Parameters
    ----------
    path : of the file, for messages
    data : the file
    descriptor : the type of the message that the file is, a ``google.protobuf.descriptor.Descriptor``

    Raises
    ------
    ValueError
        It is not so.
    """
    types: dict[str, tuple[dict[int, Any], set[int]]] = {}
    most = MOST_MESSAGES + len(data) // BYTES_OF_A_MESSAGE
    count, waiting = 0, [(0, len(data), descriptor, 0)]
    while waiting:
        start, end, message, depth = waiting.pop()
        if depth > MOST_NESTED:
            raise ValueError(f"{path} is damaged or hostile: its messages are nested more than {MOST_NESTED} deep")
        if message.full_name not in types:
            fields = message.fields_by_number.items()
            inner = {number: field.message_type for number, field in fields if field.message_type is not None}
            types[message.full_name] = inner, {number for number, field in fields if field.type == field.TYPE_STRING}
        inner, texts = types[message.full_name]
        try:
            for number, wire, begin, stop in _fields(data, start, end):
                if number in texts and wire == _BYTES:
                    str(data[begin:stop], "utf-8")
                of = inner.get(number)
                if of is not None and wire == _BYTES:
                    count += 1
                    if count > most:
                        raise ValueError(f"it has more than {most} messages")
                    waiting.append((begin, stop, of, depth + 1))
        except ValueError as error:
            raise ValueError(f"{path} is damaged or hostile: in a {message.name}, {error}") from None


def _fields(data: memoryview, position: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Number, wire type, and the first byte of the value and the one behind it, of each field up to `end`."""
    while position < end:
        tag, position = _varint(data, position, end)
        wire = tag & 7
        begin = position
        if wire == _BYTES:
            length, begin = _varint(data, position, end)
            position = begin + length
        elif wire == _VARINT:
            _, position = _varint(data, position, end)
        elif wire in (_FIXED32, _FIXED64):
            position += 4 if wire == _FIXED32 else 8
        else:
            raise ValueError(f"field {tag >> 3} is of wire type {wire}, which is not used")
        if position > end:
            raise ValueError(f"field {tag >> 3} is {position - begin} bytes long, but {end - begin} are left")
        yield tag >> 3, wire, begin, position


def _varint(data: memoryview, position: int, end: int) -> tuple[int, int]:
    """An integer of 7 bits a byte, and the position behind it."""
    value = shift = 0
    while position < end and shift < 70:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise ValueError("a number has no end")


def is_onnx(file: BinaryIO, size: int) -> bool:
    """Whether a file begins as a model of ONNX does: known fields, the version of the format, then a graph.

    A graph that is cut off counts, so that a reader can say what is wrong. A few bytes of each field are read.

    Parameters
    ----------
    file : open for reading
    size : its bytes
    """
    position = 0
    has_version = has_graph = False
    for _ in range(1000):
        file.seek(position)
        head = memoryview(file.read(21))
        try:
            tag, after = _varint(head, 0, len(head))
            value, after = _varint(head, after, len(head))
        except ValueError:
            break
        number, wire = tag >> 3, tag & 7
        if wire != _ONNX.get(number):
            return False
        has_version |= number == 1 and 0 < value < 1000
        has_graph |= number == 7
        if has_version and has_graph:
            return True
        position += after + (value if wire == _BYTES else 0)
        if position >= size:
            break
    return False


#: The numbers of the fields of a ModelProto, and their wire types.
_ONNX = {1: _VARINT, 5: _VARINT} | dict.fromkeys((2, 3, 4, 6, 7, 8, 14, 20, 25, 26), _BYTES)
