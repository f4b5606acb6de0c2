"""PyTorch's files, read by ``torch.load(weights_only=True)`` after checks of everything that it does not check."""

from __future__ import annotations

import io
import os
import pickletools
import sys
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from .. import extras
from ..importers.pytorch import PREFIXED_NAME
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
        _check(path, file)
        extras.require(["torch"], f"{path} is a PyTorch file, which", "torch")
        return _tensors(path, _load(path, file))


def _check(path: str, file: BinaryIO) -> None:
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
    _check_pickle(path, data, MOST_OBJECTS + stored)
    for info in infos:  # PyTorch itself does not compare check sums
        for _ in _read_member(path, archive, info):
            pass


def _read_member(path: str, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    """Read a member in blocks; ValueError at its end if its check sum is wrong."""
    member = Member(path, archive, info)
    for start in range(0, info.file_size, BLOCK):
        yield member.read(min(BLOCK, info.file_size - start))
    member.finish()


def _check_pickle(path: str, data: bytes, most: int) -> None:
    """Check which classes and functions a pickle names, and bound what its objects can take, without running it."""
    unknown: dict[str, None] = {}
    operations = 0
    try:
        for operation, argument, _ in pickletools.genops(io.BytesIO(data)):
            operations += 1
            if operations * OBJECT > most:
                raise ValueError(f"it makes more than {operations} objects")
            if operation.name in ("GLOBAL", "INST"):
                module, _, name = str(argument).partition(" ")
                if not _is_known(module, name):
                    unknown[f"{module}.{name}"] = None
            elif operation.name in ("STACK_GLOBAL", "EXT1", "EXT2", "EXT4"):
                raise ValueError(f"it has the operation {operation.name}, which torch.save does not write")
    except Exception as error:  # genops raises whatever its decoders raise
        raise ValueError(f"{path}: data.pkl is damaged or hostile: {error}") from None
    if unknown:
        some = ", ".join(list(unknown)[:5])
        raise ValueError(
            f"{path} holds objects of {some}{' and more' if len(unknown) > 5 else ''}, which could run any program and "
            "are not read: load it where it was made, and torch.save(module.state_dict(), path)"
        )


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


def _load(path: str, file: BinaryIO) -> Any:
    """Load the file. PyTorch trusts the storages' sizes in the pickle; they are compared with the bytes read."""
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
            return torch.load(counted, map_location=place, weights_only=True)
    except OSError:
        raise
    except Exception as error:  # RuntimeError, UnpicklingError, AssertionError, IndexError, ...
        reason = str(error).strip().split("\n")[0]
        raise ValueError(f"{path} is no file that torch.load(weights_only=True) reads: {reason}") from None


def _tensors(path: str, content: Any) -> dict[str, Tensor]:
    """The arrays of a state dict, or of the state dicts in a checkpoint, under their keys."""
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} holds a {type(content).__name__}, wanted a state dict or a checkpoint with one")
    own = _arrays(content)
    nested = {
        key: _arrays(value) for key, value in content.items() if isinstance(key, str) and isinstance(value, Mapping)
    }
    nested = {key: arrays for key, arrays in nested.items() if any(map(PREFIXED_NAME.fullmatch, arrays))}
    if any(map(PREFIXED_NAME.fullmatch, own)) or not nested:
        return own
    if len(nested) == 1:
        return next(iter(nested.values()))
    return {f"{key}.{name}": tensor for key, arrays in nested.items() for name, tensor in arrays.items()}


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
