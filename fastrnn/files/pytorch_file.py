"""PyTorch's files, read by ``torch.load(weights_only=True)`` after checks of everything that it does not check."""

from __future__ import annotations

import io
import os
import pickletools
import sys
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from .. import extras
from ..spec import LayerSpec
from . import state_dict
from .archive import BLOCK, Member, open_archive
from .tensors import WIDENED, Tensor, widen

#: Classes and functions, beside PyTorch's types and storages, that a state dict or a checkpoint may name. PyTorch's
#: own list is longer: bytearray, for one, takes any memory that it is told to.
GLOBALS = {
    "collections.OrderedDict",
    "collections.defaultdict",
    "collections.Counter",
    "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_parameter",
    "torch.nn.parameter.Parameter",
    "torch.Size",
    "torch.device",
    "torch.Tensor",
    "torch.serialization._get_layout",
}

#: What every file begins with that PyTorch wrote before 1.6, or with ``_use_new_zipfile_serialization=False``.
LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."

#: The pickles in such a file: a magic number, a version, the machine, the content, the keys of the storages. Behind
#: them is each storage: its number of elements in 8 bytes, and its elements.
LEGACY_PICKLES = 5
CONTENT, KEYS = 3, 4  # their places
LEGACY_SIZE = 8

#: Bytes that the pickle's own objects, which are not arrays, may take beside the size of the arrays.
MOST_OBJECTS = 8 << 20
OBJECT = 64  # bytes of the smallest object that one byte of a pickle can make


def read(path: str, **options: Any) -> LayerSpec:
    """Read a recurrent layer from a state dict, or a checkpoint with one inside.

    Parameters
    ----------
    path : a file of ``torch.save(module.state_dict(), path)``, or one of PyTorch Lightning, for example
    options : as ``state_dict.spec_from_tensors`` has them

    Raises
    ------
    ValueError
        The file is damaged or hostile, or holds objects beside arrays and plain values, such as a whole module.
    ModuleNotFoundError
        torch is not installed.
    """
    return state_dict.spec_from_tensors(path, tensors(path), **options)


def tensors(path: str) -> dict[str, Tensor]:
    """The arrays of a state dict, or of a checkpoint with one inside; see :func:`read` for its errors."""
    with open(path, "rb") as file:
        is_legacy = file.read(len(LEGACY_MAGIC)) == LEGACY_MAGIC
        file.seek(0)
        storages = _check_legacy(path, file) if is_legacy else None
        if not is_legacy:
            _check_zip(path, file)
        extras.require(["torch"], f"{path} is a PyTorch file, which", "torch")
        return state_dict.tensors_of_checkpoint(path, _load(path, file, storages), _arrays)


def _check_zip(path: str, file: BinaryIO) -> None:
    """Check the zip and the pickle inside, so that nothing takes more memory than the arrays' bytes."""
    archive = open_archive(path, file)
    infos = archive.infolist()
    faults = [f"{info.filename!r} is compressed, which PyTorch never does" for info in infos if info.compress_type]
    faults += [
        f"{info.filename!r} is outside the folder of the others"
        for info in infos
        if info.filename.split("/")[0] != infos[0].filename.split("/")[0]
    ]
    inner = {info.filename.partition("/")[2]: info for info in infos}
    pickles = inner["data.pkl"]
    stored = sum(info.file_size for info in infos if info is not pickles)
    if pickles.file_size > MOST_OBJECTS + stored:
        faults.append(f"data.pkl has {pickles.file_size} bytes beside {stored} of arrays")
    if faults:
        raise ValueError(f"{path}: {'; '.join(faults[:20])}")
    if (order := inner.get("byteorder")) and Member(path, archive, order).read(min(order.file_size, 16)) != b"little":
        raise ValueError(f"{path} was saved on a machine of another byte order, wanted little-endian")
    if sys.byteorder != "little":
        raise NotImplementedError(f"{path}: PyTorch's files are read on little-endian machines only")
    data = b"".join(_read_member(path, archive, pickles))
    _check_pickle(f"{path}: data.pkl", io.BytesIO(data), MOST_OBJECTS + stored)
    for info in infos:  # PyTorch itself does not compare check sums
        for _ in _read_member(path, archive, info):
            pass


def _read_member(path: str, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    """Read a member in blocks; ValueError at its end if its check sum is wrong."""
    member = Member(path, archive, info)
    for start in range(0, info.file_size, BLOCK):
        yield member.read(min(BLOCK, info.file_size - start))
    member.finish()


def _check_legacy(path: str, file: BinaryIO) -> _Storages:
    """Check the pickles of a file without a zip; what the storages behind them have to be."""
    size = os.fstat(file.fileno()).st_size
    for index in range(LEGACY_PICKLES):
        title = f"{path}: its {('magic number', 'version', 'machine', 'content', 'list of storages')[index]}"
        strings = _check_pickle(title, file, MOST_OBJECTS + size)
    if len(set(strings)) < len(strings):
        raise ValueError(f"{title} is damaged or hostile: it names a storage twice")
    return _Storages(len(strings), size - file.tell())


def _check_pickle(title: str, stream: BinaryIO, most: int) -> list[str]:
    """Check which classes and functions a pickle names, and bound what its objects can take, without running it.

    Parameters
    ----------
    title : of the pickle, for messages
    stream : is read up to the pickle's end
    most : bytes that its objects may take

    Returns
    -------
    list of str
        Its strings.
    """
    unknown: dict[str, None] = {}
    strings: list[str] = []
    operations = 0
    try:
        for operation, argument, _ in pickletools.genops(stream):
            operations += 1
            if operations * OBJECT > most:
                raise ValueError(f"it makes more than {operations} objects")
            if operation.name in ("GLOBAL", "INST"):
                module, _, name = str(argument).partition(" ")
                if not _is_known(module, name):
                    unknown[f"{module}.{name}"] = None
            elif operation.name in ("STACK_GLOBAL", "EXT1", "EXT2", "EXT4"):
                raise ValueError(f"it has the operation {operation.name}, which torch.save does not write")
            elif isinstance(argument, str):
                strings.append(argument)
    except Exception as error:  # genops raises whatever its decoders raise
        raise ValueError(f"{title} is damaged or hostile: {error}") from None
    if unknown:
        some = ", ".join(list(unknown)[:5])
        raise ValueError(
            f"{title.partition(': ')[0]} holds objects of {some}{' and more' if len(unknown) > 5 else ''}, which could "
            "run any program and are not read: load it where it was made, and torch.save(module.state_dict(), path)"
        )
    return strings


def _is_known(module: str, name: str) -> bool:
    if module == "torch" and (name.endswith("Storage") or name.islower()):
        import torch

        return name.endswith("Storage") or isinstance(getattr(torch, name, None), torch.dtype)
    return f"{module}.{name}" in GLOBALS or (module == "torch.storage" and name.endswith("Storage"))


class _Counted(io.RawIOBase):
    """An open file that counts what is read from it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.bytes_read = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, buffer: Any) -> int:
        count: int = self._file.readinto(buffer)  # type: ignore[attr-defined]
        self.bytes_read += count
        return count


@dataclass
class _Storages:
    """What the storages of a file without a zip have to be, and those that PyTorch has made so far.

    PyTorch takes the memory of each before it reads any, and leaves one as it is that the list does not name.
    """

    wanted: int
    wanted_bytes: int
    made: int = 0
    made_bytes: int = 0

    def place(self, storage: Any, _: str) -> Any:
        self.made += 1
        self.made_bytes += storage.nbytes() + LEGACY_SIZE
        if self.made > self.wanted or self.made_bytes > self.wanted_bytes:
            raise ValueError(f"{self.made} storages have {self.made_bytes} bytes; {self._wanted}")
        return storage

    def check(self) -> None:
        """Raise ValueError unless all of them are there, and nothing else."""
        if (self.made, self.made_bytes) != (self.wanted, self.wanted_bytes):
            raise ValueError(f"it has {self.made} storages of {self.made_bytes} bytes; {self._wanted}")

    @property
    def _wanted(self) -> str:
        return f"the file has {self.wanted} of {self.wanted_bytes}"


def _load(path: str, file: BinaryIO, storages: _Storages | None) -> Any:
    """Load the file. PyTorch trusts the storages' sizes in the pickle; they are compared with the bytes in the file."""
    import torch

    file.seek(0)
    counted = _Counted(file)

    def place(storage: Any, _: str) -> Any:
        if storage.nbytes() > counted.bytes_read:
            raise ValueError(f"a storage of {storage.nbytes()} bytes has {counted.bytes_read} in the file")
        counted.bytes_read = 0
        return storage

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(counted, map_location=storages.place if storages else place, weights_only=True)
            if storages:
                storages.check()
            return content
    except OSError:
        raise
    except Exception as error:  # RuntimeError, UnpicklingError, AssertionError, IndexError, ...
        reason = str(error).strip().split("\n")[0]
        raise ValueError(f"{path} is no file that torch.load(weights_only=True) reads: {reason}") from None


def _arrays(mapping: Mapping[Any, Any]) -> dict[str, Tensor]:
    import torch

    return {
        name: Tensor(tuple(value.shape), _dtype_of(value), _reader(value))
        for name, value in mapping.items()
        if isinstance(name, str) and isinstance(value, torch.Tensor)
    }


def _dtype_of(tensor: Any) -> str:
    plain = str(tensor.layout) == "torch.strided" and not tensor.is_meta and not tensor.is_quantized
    return str(tensor.dtype).removeprefix("torch.") if plain else "a tensor that is sparse, quantized or without data"


def _reader(tensor: Any) -> Any:
    def read() -> NDArray[Any]:
        value = tensor.detach()
        dtype = _dtype_of(value)
        if dtype in ("float32", "float64"):
            array: NDArray[Any] = value.numpy()
            return array
        import torch

        stored = value.contiguous().view(torch.int16).numpy().reshape(-1)
        array = np.empty(stored.size, WIDENED[dtype])
        widen(stored.view(np.uint16 if dtype == "bfloat16" else np.float16), dtype, array)
        return array.reshape(tuple(value.shape))

    return read
