"""A file's format, told from its content and never from its name."""

from __future__ import annotations

import os
from typing import BinaryIO

from . import archive, protobuf, safetensors_file
from .pytorch_file import LEGACY_MAGIC

#: Beginnings of files that people try, and what to do with them.
_KNOWN = (
    (b"\x93NUMPY", "is a single NumPy array, wanted an npz with PyTorch's names: numpy.savez(path, **state_dict)"),
    (b"version https://git-lfs", "is a Git LFS pointer and not the file itself: run 'git lfs pull'"),
    (
        b"\x80",
        "is a pickle, which can run any program and is not read: save a state dict, or numpy.savez(path, **arrays)",
    ),
    (b"\x1f\x8b", "is compressed by gzip, wanted it unpacked"),
)


def recognize(path: str) -> str:
    """The name of a file's format, as in ``load.SOURCES``.

    Parameters
    ----------
    path : a file, or the prefix of a TensorFlow checkpoint, whose ``.index`` is there

    Raises
    ------
    ValueError
        The content is of no format that is read; the message says what it is.
    NotImplementedError
        It is TorchScript.
    OSError
        The file cannot be read, or is a directory.
    """
    if not os.path.exists(path) and os.path.isfile(f"{path}.index"):
        return "tensorflow"
    if os.path.isdir(path):
        raise IsADirectoryError(f"{path} is a directory, wanted a file, or the prefix of a TensorFlow 1 checkpoint")
    with open(path, "rb") as file:
        head = file.read(64)
        if head.startswith(b"\x89HDF\r\n\x1a\n"):
            return "hdf5"
        if head.startswith(LEGACY_MAGIC):
            return "torch"
        if head.startswith(b"PK"):
            return _recognize_zip(path, file)
        if head[8:9] == b"{" and safetensors_file.is_header_length(head, os.fstat(file.fileno()).st_size):
            return _recognize_safetensors(path, file)
        if head.lstrip().startswith(b"{"):
            return "json"
        if protobuf.is_onnx(file, os.fstat(file.fileno()).st_size):
            return "onnx"
    if path.endswith(".index") and os.path.isfile(f"{path.removesuffix('.index')}.data-00000-of-00001"):
        raise ValueError(
            f"{path} is a part of a TensorFlow checkpoint, wanted its prefix {path.removesuffix('.index')}"
        )
    if _is_tensorflow_graph(head):
        raise ValueError(
            f"{path} is a graph of TensorFlow, as a frozen one or a SavedModel, which is not read: wanted the "
            "checkpoint or the Keras file that it was made from"
        )
    if head[4:8] == b"TFL3":
        raise ValueError(
            f"{path} is a model of TensorFlow Lite, which is not read: wanted the one that it was made from"
        )
    for beginning, reason in _KNOWN:
        if head.startswith(beginning):
            raise ValueError(f"{path} {reason}")
    found = f"begins with {head[:8]!r}" if head else "is empty"
    raise ValueError(
        f"{path} {found}, wanted a file of PyTorch, safetensors, npz, JSON, Keras, HDF5 or ONNX, or the prefix of a "
        "TensorFlow 1 checkpoint"
    )


def _is_tensorflow_graph(head: bytes) -> bool:
    """Whether a file begins as a GraphDef, with a node that begins with its name, or as a SavedModel."""
    if head.startswith(b"\x08\x01\x12"):  # its version, and its first graph
        return True
    node = head[2:3] if head[1:2] < b"\x80" else head[3:4]
    return head.startswith(b"\n") and node == b"\n"


def _recognize_zip(path: str, file: BinaryIO) -> str:
    names = [member.filename for member in archive.members(path, file)]
    inner = {name.split("/", 1)[1] for name in names if "/" in name}
    if "data.pkl" in inner and ("constants.pkl" in inner or any(name.startswith("code/") for name in inner)):
        raise NotImplementedError(
            f"{path} is TorchScript, whose files are not read: load it with torch.jit.load, and pass its LSTM, GRU "
            "or RNN to from_torch, or its state_dict() to from_state_dict"
        )
    if "data.pkl" in inner:
        return "torch"
    if "config.json" in names and any(name.endswith((".weights.h5", ".weights.json")) for name in names):
        return "keras"
    if names and all(name.endswith(".npy") for name in names):
        return "npz"
    some = ", ".join(map(repr, names[:5])) or "nothing"
    raise ValueError(
        f"{path} is a zip with {some}, wanted data.pkl (PyTorch), config.json with weights (Keras), or .npy alone (npz)"
    )


def _recognize_safetensors(path: str, file: BinaryIO) -> str:
    header = safetensors_file.read_header(path, file)
    return "native" if header.metadata.get("format") == "fastrnn" else "safetensors"
