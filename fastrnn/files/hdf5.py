"""HDF5 out of files that may be damaged or hostile.

Only hard links are followed, numbers stand in the file itself, and are as many as are declared.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from ..extras import require
from .tensors import WIDENED, Tensor

#: How many times larger than its stored bytes an array, or a chunk of it, may be unpacked.
MOST_GROWTH = 100

#: Bytes up to which an array may be larger than that: zeros, such as biases, are packed very small.
SMALL = 1 << 16

#: Bytes of one attribute, such as a model's configuration.
MOST_ATTRIBUTE = 1 << 20

MOST_NAMES = 1 << 16  # of one list of names


class File:
    """An open HDF5 file. Everything that is wrong in it raises ValueError, which names the object.

    Parameters
    ----------
    path : what messages call the file
    file : its bytes, seekable; kept open by the caller
    """

    def __init__(self, path: str, file: BinaryIO) -> None:
        require(["h5py"], "reading Keras's files", "keras")
        import h5py

        self._h5py, self._path = h5py, path
        file.seek(0, 2)
        self._size = file.tell()
        file.seek(0)
        with self._guard("the file"):
            self._file = h5py.File(file, "r")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        with self._guard("the file"):
            self._file.close()

    @contextmanager
    def _guard(self, name: str) -> Iterator[None]:
        try:
            yield
        except _Refused as error:
            raise ValueError(f"{self._path}: {error}") from None
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # whatever h5py makes of HDF5's errors, also MemoryError for absurd sizes
            if isinstance(error, OSError) and error.errno is not None:
                raise
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"{self._path}: {name} is damaged: {type(error).__name__}: {reason}") from None

    def _find(self, path: str) -> Any:
        """The object at a path, None if there is none; only hard links are followed."""
        node = self._file
        for part in path.split("/") if path else ():
            if not part or part == ".":
                raise _Refused(f"the path {path!r} has an empty part")
            if not isinstance(node, self._h5py.Group):
                return None
            link = node.get(part, getlink=True)
            if link is None:
                return None
            if not isinstance(link, self._h5py.HardLink):
                kinds = {"SoftLink": "a soft link", "ExternalLink": "a link to another file"}
                kind = kinds.get(type(link).__name__, "a link of an unknown kind")
                raise _Refused(f"{path!r} leads through {kind}, which is not followed")
            node = node[part]
        return node

    def has_group(self, path: str) -> bool:
        """Whether there is a group at a path; "" is the root."""
        with self._guard(repr(path)):
            return isinstance(self._find(path), self._h5py.Group)

    def children(self, path: str, most: int) -> list[str]:
        """Names in a group, the first `most` of them; none where there is no group."""
        names: list[str] = []
        with self._guard(repr(path)):
            group = self._find(path)
            if isinstance(group, self._h5py.Group):
                for name in group:
                    if len(names) == most:
                        break
                    names.append(str(name))
        return names

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
        for number in range(MOST_NAMES):
            part = self._attribute(path, f"{attribute}{number}")
            if part is None:
                return joined if number else None
            joined += part
            if len(joined) > MOST_NAMES:
                break
        raise ValueError(f"{self._path}: {attribute} of {path or '/'!r} has more than {MOST_NAMES} names")

    def _attribute(self, path: str, attribute: str) -> list[str] | None:
        name = f"the attribute {attribute} of {path or '/'!r}"
        with self._guard(name):
            node = self._find(path)
            if node is None or attribute not in node.attrs:
                return None
            low = node.attrs.get_id(attribute)
            count = math.prod(low.shape) if low.shape is not None else 0
            if count == 0:
                return []
            if low.get_storage_size() > min(MOST_ATTRIBUTE, self._size) or count > MOST_NAMES:
                raise _Refused(f"{name} has {count} entries of {low.get_storage_size()} bytes: too many")
            values = np.asarray(node.attrs[attribute]).ravel().tolist()
            texts = [value.decode("utf-8") if isinstance(value, bytes) else value for value in values]
            if not all(isinstance(text, str) for text in texts):
                raise _Refused(f"{name} is of type {low.dtype}, wanted texts")
            if sum(map(len, texts)) > MOST_ATTRIBUTE:
                raise _Refused(f"{name} is longer than {MOST_ATTRIBUTE} characters")
            return texts

    def tensor(self, path: str) -> Tensor | None:
        """The array at a path, of floating-point numbers, checked and not yet read; None if there is no object.

        Raises
        ------
        ValueError
            It is no array; its numbers are of another type, stand in another file, are packed by a filter that is not
            read, or are not there in the size that it declares.
        """
        with self._guard(repr(path)):
            data = self._find(path)
            if data is None:
                return None
            if not isinstance(data, self._h5py.Dataset):
                raise _Refused(f"{path!r} is a {type(data).__name__}, wanted an array")
            dtype = self._dtype(path, data)
            if data.shape is None:
                raise _Refused(f"{path!r} is empty, wanted an array")
            self._check_storage(path, data)
            return Tensor(tuple(map(int, data.shape)), dtype, self._reader(path, data, dtype))

    def _dtype(self, path: str, data: Any) -> str:
        dtype = np.dtype(data.dtype)
        marked = data.attrs.get_id("dtype") if "dtype" in data.attrs else None
        if marked is not None and marked.get_storage_size() <= 64 and data.attrs["dtype"] in ("bfloat16", b"bfloat16"):
            return "bfloat16" if dtype.kind == "V" else str(dtype.name)
        if dtype.kind != "f" or dtype.name not in WIDENED:
            raise _Refused(f"{path!r} is of type {dtype}, wanted float16, float32 or float64")
        return str(dtype.name)

    def _check_storage(self, path: str, data: Any) -> None:
        h5d, h5z = self._h5py.h5d, self._h5py.h5z
        creation = data.id.get_create_plist()
        layout = creation.get_layout()
        if creation.get_external_count():
            raise _Refused(f"{path!r} has its numbers in another file")
        if layout not in (h5d.COMPACT, h5d.CONTIGUOUS, h5d.CHUNKED):
            raise _Refused(f"{path!r} is a virtual array, made of others")
        wanted = math.prod(data.shape) * data.id.get_type().get_size()
        stored = data.id.get_storage_size()
        if stored > self._size:
            raise _Refused(f"{path!r} has {stored} bytes, but the file has {self._size}")
        if layout != h5d.CHUNKED:
            if stored != wanted:
                raise _Refused(f"{path!r} has {stored} bytes, but {data.dtype} of shape {data.shape} has {wanted}")
            offset = data.id.get_offset()
            if wanted and offset is not None and offset + wanted > self._size:
                raise _Refused(f"{path!r} ends at byte {offset + wanted}, but the file has {self._size}")
            return
        filters = [creation.get_filter(i)[0] for i in range(creation.get_nfilters())]
        if unknown := sorted(set(filters) - {h5z.FILTER_DEFLATE, h5z.FILTER_SHUFFLE, h5z.FILTER_FLETCHER32}):
            raise _Refused(f"{path!r} is packed by filters {unknown}, wanted deflate, shuffle or fletcher32")
        chunk = math.prod(creation.get_chunk()) * data.id.get_type().get_size()
        for what, size in (("declares", wanted), ("has chunks of", chunk)):
            if size > max(SMALL, MOST_GROWTH * stored):
                raise _Refused(f"{path!r} {what} {size} bytes, but only {stored} are stored")

    def _reader(self, path: str, data: Any, dtype: str) -> Any:
        def read() -> NDArray[Any]:
            with self._guard(repr(path)):
                if dtype == "bfloat16":
                    raw = np.empty(data.shape, data.dtype)
                    if raw.size:
                        data.read_direct(raw)
                    return (raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
                values = np.empty(data.shape, WIDENED[dtype])
                if values.size:
                    data.read_direct(values)
                return values
            raise AssertionError  # the guard lets nothing through

        return read


class _Refused(Exception):
    """What stands in the file is not read; the message says why."""
