"""Files of every format that need no framework to be made, in memory."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from typing import Any

import cases
import numpy as np

import fastrnn
from fastrnn.layers import LAYERS

PARTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")


def state_dict(spec: Any, prefix: str = "") -> dict[str, np.ndarray]:
    """A model's arrays under PyTorch's names."""
    return {
        prefix + spec.name(index, part): getattr(cell, part)
        for index, cell in enumerate(spec.cells)
        for part in PARTS
        if getattr(cell, part) is not None
    }


def npz(arrays: dict[str, np.ndarray], compressed: bool = False) -> bytes:
    file = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(file, **arrays)
    return file.getvalue()


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def zipped(members: list[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return file.getvalue()


def raw_safetensors(header: Any, data: bytes = b"") -> bytes:
    """A file of any header, an object or text."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def safetensors(arrays: dict[str, np.ndarray], metadata: Any = None) -> bytes:
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": metadata}
    data = b""
    for name, array in arrays.items():
        types = {"float32": "F32", "float64": "F64", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int8": "I8"}
        begin, data = len(data), data + array.tobytes()
        offsets = [begin, len(data)]
        header[name] = {"dtype": types[array.dtype.name], "shape": array.shape, "data_offsets": offsets}
    return raw_safetensors(header, data)


def native(spec: Any, folder: Any) -> bytes:
    path = folder / "native"
    LAYERS[spec.kind](spec).save(path)
    return path.read_bytes()


def model(spec: Any, folder: Any) -> bytes:
    """A model of a layer and what may stand around it."""
    rng = np.random.default_rng(2)

    def draw(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    path = folder / "model"
    fastrnn.Sequential(
        fastrnn.Embedding(draw(3, 2), mask_zero=True),
        fastrnn.Conv1d(draw(2, 2, 2), padding="causal"),
        spec,
        "elu",
        fastrnn.LayerNorm(draw(2)),
        fastrnn.Linear(draw(1, 2), draw(1)),
        fastrnn.Mean(),
    ).save(path)
    return path.read_bytes()


def small_spec(kind: str = "gru") -> Any:
    return cases.random_spec(np.random.default_rng(1), kind, 2, 2)
