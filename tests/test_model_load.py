"""The C library's reader of our own format, called through the module's public C functions: the models are Python's."""

import ctypes
import json
import struct
from dataclasses import replace

import cases
import files
import model_cases
import numpy as np
import pytest
from bits import MODELS

import fastrnn
from fastrnn import _core
from fastrnn.layers import LAYERS

library = ctypes.CDLL(_core.__file__)
library.fastrnn_last_error.restype = ctypes.c_char_p
for name in ("fastrnn_model_fingerprint", "fastrnn_layer_fingerprint"):
    getattr(library, name).restype = ctypes.c_uint64
library.fastrnn_model_layer.restype = ctypes.c_void_p


class Model:
    """A model that the C library loaded."""

    def __init__(self, source):
        self.pointer = ctypes.c_void_p()
        if isinstance(source, bytes):
            status = library.fastrnn_model_load_memory(source, len(source), None, ctypes.byref(self.pointer))
        else:
            status = library.fastrnn_model_load(str(source).encode(), None, ctypes.byref(self.pointer))
        if status:
            raise ValueError(library.fastrnn_last_error().decode())

    @property
    def fingerprint(self):
        """A hash of every option and weight."""
        return library.fastrnn_model_fingerprint(self.pointer)

    def layer_fingerprint(self):
        layer = ctypes.c_void_p(library.fastrnn_model_layer(self.pointer, ctypes.c_int64(0)))
        return library.fastrnn_layer_fingerprint(layer)

    def __del__(self):
        library.fastrnn_model_destroy(self.pointer)


@pytest.mark.parametrize("weight_dtype", [None, "float16"])
@pytest.mark.parametrize(("num_layers", "bidirectional"), [(1, False), (2, True)])
@pytest.mark.parametrize("name", MODELS)
def test_layers(rng, tmp_path, name, num_layers, bidirectional, weight_dtype):
    kind, arguments = MODELS[name]
    plain = cases.random_spec(rng, kind, 3, 5, num_layers, bidirectional, **arguments)
    for spec in (plain, cases.random_options(rng, plain)):
        layer = LAYERS[kind](spec, weight_dtype=weight_dtype)
        layer.save(tmp_path / "model")
        assert Model(tmp_path / "model").layer_fingerprint() == layer._engine.fingerprint


def test_models(rng, tmp_path):
    """Every operation, in chains of any order; from a path, from memory, and where no array is aligned."""
    kinds = set()
    for _ in range(60):
        spec = model_cases.random_model(rng)
        model = fastrnn.Sequential.from_spec(spec)
        if model.mask_zero:
            continue
        model.save(tmp_path / "model")
        data = (tmp_path / "model").read_bytes()
        (length,) = struct.unpack("<Q", data[:8])
        shifted = struct.pack("<Q", length + 1) + data[8 : 8 + length] + b" " + data[8 + length :]
        for source in (tmp_path / "model", data, shifted):
            assert Model(source).fingerprint == model._engine.fingerprint
        kinds |= {type(op).__name__ for op in model.spec.ops}
    assert kinds >= {
        "LayerSpec",
        "Embedding",
        "Linear",
        "Conv1d",
        "LayerNorm",
        "Scale",
        "Softmax",
        "Activation",
        "Mean",
    }


def edited(data, **changes):
    """A model's file with other options of its last operation; values are JSON."""
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    config = json.loads(header["__metadata__"]["config"])
    config["ops"][-1] |= changes
    text = json.dumps(config)
    for value in changes.values():
        text = text.replace(f'"{value}"', value)
    header["__metadata__"]["config"] = text
    return files.raw_safetensors(header, data[8 + length :])


def test_numbers_are_rounded_as_in_python(rng, tmp_path):
    """Options are doubles, written in decimal: any of them, and any way to write them."""
    weight = fastrnn.Linear(np.ones((2, 2), "f4"))
    fastrnn.Sequential(weight, fastrnn.Activation("leaky_relu", 0.25, 0.0)).save(tmp_path / "model")
    data = (tmp_path / "model").read_bytes()
    texts = [
        "0",
        "-0.0",
        "1e-400",
        "1e400",
        "Infinity",
        "-Infinity",
        "NaN",
        "5e-324",
        "2.5e-324",
        "2.4703282292062328e-324",
    ]
    texts += [
        "2.2250738585072011e-308",
        "1.7976931348623158e308",
        "1.7976931348623159e308",
        "9007199254740993",
        "0.1e1",
        "1E+2",
    ]
    texts += ["179769313486231580793728971405301e276", "0." + "0" * 60 + "123456789012345678901234567890"]
    bits = rng.integers(0, 1 << 64, 300, np.uint64, endpoint=False)
    values = [value for value in bits.view("f8") if np.isfinite(value)]
    texts += [repr(float(value)) for value in values] + [f"{value:.25e}" for value in values]
    halves = (bits[:100] & np.uint64((1 << 62) - 1)).view(
        "f8"
    )  # numbers halfway between two doubles, and close to that
    from fractions import Fraction

    for value in halves[(halves > 1e-30) & (halves < 1e30)]:
        middle = (Fraction(float(value)) + Fraction(float(np.nextafter(value, np.inf)))) / 2
        for digits in (20, 60, 110):
            power = digits - int(np.floor(np.log10(value))) - 1
            texts += [f"{int(middle * Fraction(10) ** power)}e{-power}"]
    for text in texts:
        wanted = fastrnn.Sequential(weight, fastrnn.Activation("leaky_relu", float(text), 0.0))
        found = Model(edited(data, alpha=text))
        assert found.fingerprint == wanted._engine.fingerprint, text


def test_int8_weights(rng, tmp_path):
    """Arrays of int8 with one scale for a row are the weights q * scale."""
    spec = cases.random_spec(rng, "gru", 3, 5)
    (cell,) = spec.cells
    arrays, parts = {}, {}
    for name in ("weight_ih", "weight_hh"):
        q = rng.integers(-127, 128, getattr(cell, name).shape, np.int8, endpoint=False)
        q[:, 0] = 127
        scale = np.float32(2.0) ** rng.integers(-9, -5, len(q)).astype("f4")
        arrays |= {f"{name}_l0": q, f"{name}_l0_scale": scale}
        parts[name] = q * scale[:, None]
    config = {"kind": "gru", "input_size": 3, "hidden_size": 5, "num_layers": 1, "proj_size": 0, "bidirectional": False}
    options = {"activations": [], "cell_clip": None, "gate_clip": None, "proj_clip": None, "coupled": False}
    config |= {"reverse": False, "batch_first": True, "dtype": "float32", "weight_dtype": "int8"}
    config["cells"] = [options | {"linear_before_reset": True}]
    metadata = {"format": "fastrnn", "format_version": "1", "config": json.dumps(config)}
    data = files.safetensors(arrays, metadata)
    plain = replace(spec, cells=[replace(cell, **parts, bias_ih=None, bias_hh=None)])
    fastrnn.GRU(plain).save(tmp_path / "plain")
    small, wide = Model(data), Model(tmp_path / "plain")
    assert small.fingerprint != wide.fingerprint  # the type of weights is an option
    for wrong, reason in (
        ({"weight_ih_l0_scale": np.ones(4, "f4")}, r"weight_ih_l0_scale has shape \(4,\), wanted \(15,\)"),
        ({"weight_hh_l0": np.ones((15, 5), "f4")}, "weight_hh_l0 is float32, wanted int8"),
    ):
        with pytest.raises(ValueError, match=reason):
            Model(files.safetensors(arrays | wrong, metadata))
    del arrays["weight_hh_l0_scale"]
    with pytest.raises(ValueError, match="weight_hh_l0_scale is missing"):
        Model(files.safetensors(arrays, metadata))


def test_what_needs_python_is_refused(rng, tmp_path):
    table = fastrnn.Embedding(rng.standard_normal((5, 2)).astype("f4"), mask_zero=True)
    fastrnn.Sequential(table, fastrnn.Mean()).save(tmp_path / "masked")
    with pytest.raises(ValueError, match=r"ops\[0\].mask_zero is true"):
        Model(tmp_path / "masked")
    LAYERS["gru"](cases.random_spec(rng, "gru", 3, 5, dtype=np.float64)).save(tmp_path / "wide")
    with pytest.raises(ValueError, match="dtype is float64, but files are loaded for float32 alone"):
        Model(tmp_path / "wide")
    with pytest.raises(ValueError, match="cannot be opened"):
        Model(tmp_path / "none")
    with pytest.raises(ValueError, match="is no regular file"):
        Model(tmp_path)


def test_one_layer_in_a_thousand_is_found(rng, tmp_path):
    """Names are looked up in a table, not by reading the header again."""
    chain = [fastrnn.Linear(np.full((2, 2), index, "f4")) for index in range(1000)]
    model = fastrnn.Sequential(*chain)
    model.save(tmp_path / "model")
    assert Model(tmp_path / "model").fingerprint == model._engine.fingerprint
