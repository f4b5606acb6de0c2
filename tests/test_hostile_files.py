"""Files that are damaged or made to harm: refused with the reason, before memory is taken, and with no other error."""

import importlib.util
import io
import json
import os
import random
import struct
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import cases
import files
import numpy as np
import pytest

import fastrnn

ROOT = Path(__file__).parents[1]
ALLOWED = (ValueError, TypeError, OSError, NotImplementedError)

spec = importlib.util.spec_from_file_location("fuzz_files", ROOT / "bench" / "fuzz_files.py")
fuzz_files = importlib.util.module_from_spec(spec)
spec.loader.exec_module(fuzz_files)

KINDS = ("native", "native-int8", "model", "safetensors", "npz", "npz-compressed", "torch", "torch-legacy")


def small_file(kind, tmp_path):
    model = files.small_spec()
    arrays = files.state_dict(model, "rnn.")
    if kind == "native":
        return files.native(model, tmp_path)
    if kind == "native-int8":
        return files.native(replace(model, weight_dtype="int8"), tmp_path)
    if kind == "model":
        return files.model(model, tmp_path)
    if kind.startswith("torch"):
        torch = pytest.importorskip("torch")
        file = io.BytesIO()
        is_zip = kind == "torch"
        torch.save(
            {name: torch.from_numpy(array) for name, array in arrays.items()},
            file,
            _use_new_zipfile_serialization=is_zip,
        )
        return file.getvalue()
    return files.safetensors(arrays) if kind == "safetensors" else files.npz(arrays, kind.endswith("compressed"))


def loads(path, data):
    """The fingerprint of the layer in a file; None if it is refused, by an error that is allowed and says something."""
    path.write_bytes(data)
    try:
        return fastrnn.load(path)._engine.fingerprint
    except ALLOWED as error:
        assert str(error)
        return None


@pytest.mark.parametrize("kind", KINDS)
def test_truncated_at_every_byte(tmp_path, kind):
    data = small_file(kind, tmp_path)
    assert loads(tmp_path / "cut", data) is not None
    for length in range(len(data)):
        assert loads(tmp_path / "cut", data[:length]) is None, length


@pytest.mark.parametrize("flip", [0xFF, 0x01])
@pytest.mark.parametrize("kind", KINDS)
def test_every_byte_flipped(tmp_path, kind, flip):
    data = bytearray(small_file(kind, tmp_path))
    taken = 0
    for position in range(0, len(data), 3 if kind == "torch-legacy" else 1):  # PyTorch is slow
        data[position] ^= flip
        taken += loads(tmp_path / "flipped", bytes(data)) is not None
        data[position] ^= flip
    assert taken < len(data) * (0.8 if kind == "torch" else 0.5)  # PyTorch fills its files up to multiples of 64


@pytest.mark.parametrize("flip", [0xFF, 0x01])
@pytest.mark.parametrize("kind", ["npz", "npz-compressed", "torch"])
def test_a_flip_in_a_weight_of_a_zip_is_seen(tmp_path, kind, flip):
    data = bytearray(small_file(kind, tmp_path))
    unharmed = loads(tmp_path / "flipped", bytes(data))  # some bits of deflate mean nothing
    with zipfile.ZipFile(io.BytesIO(bytes(data))) as archive:
        for info in archive.infolist():
            if not info.filename.endswith((".npy", "data/0", "data/1")):
                continue
            start = info.header_offset + 30
            start += sum(struct.unpack("<HH", data[info.header_offset + 26 : info.header_offset + 30]))
            for position in range(start, start + info.compress_size):
                data[position] ^= flip
                assert loads(tmp_path / "flipped", bytes(data)) in (None, unharmed), (info.filename, position)
                data[position] ^= flip


def header(**changes):
    """A safetensors header of one array, changed."""
    entry = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]} | changes
    return files.raw_safetensors({"weight_hh_l0": entry}, bytes(16))


def two(first, second, size):
    entries = {
        name: {"dtype": "F32", "shape": [2], "data_offsets": offsets}
        for name, offsets in {"a": first, "b": second}.items()
    }
    return files.raw_safetensors(entries, bytes(size))


def npy(header_text, data=b"", version=b"\x01\x00"):
    text = header_text.encode()
    length = struct.pack("<H", len(text)) if version == b"\x01\x00" else struct.pack("<I", len(text))
    return b"\x93NUMPY" + version + length + text + data


def array_header(shape, descr="<f4"):
    return repr({"descr": descr, "fortran_order": False, "shape": shape})


def encrypted():
    data = bytearray(files.npz({"weight_hh_l0": np.ones((4, 1), "f4")}))
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    return bytes(data)


def shared_bytes():
    """A zip whose second member is the first one's bytes, as in bombs of overlapping members."""
    data = bytearray(files.zipped([("a.npy", files.npy(np.ones(4))), ("b.npy", files.npy(np.ones(4)))]))
    second = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 4)
    data[second + 42 : second + 46] = bytes(4)
    return bytes(data)


def lying_size(size):
    """A stored member said to have other sizes, in the directory."""
    data = bytearray(files.npz({"weight_hh_l0": np.ones((4, 1), "f4")}))
    entry = data.index(b"PK\x01\x02")
    data[entry + 24 : entry + 28] = struct.pack("<I", size)
    return bytes(data)


HOSTILE = {
    "huge shape": (header(shape=[2**40, 2**20]), r"has 16 bytes, but F32 of shape .* has \d+"),
    "shape beyond 64 bits": (header(shape=[2**70]), "has a shape that is not a list of up to 32 integers"),
    "shape with zero": (header(shape=[0, 2**62], data_offsets=[0, 0]), "arrays end at byte"),
    "many axes": (header(shape=[1] * 10000), "up to 32 integers"),
    "negative shape": (header(shape=[-2, -2]), "up to 32 integers"),
    "shape of floats": (header(shape=[2.0, 2.0]), "up to 32 integers"),
    "shape of booleans": (header(shape=[True, 4]), "up to 32 integers"),
    "offsets beyond the end": (header(data_offsets=[2**40, 2**40 + 16]), "leaves a gap before it"),
    "offsets in turn": (header(data_offsets=[16, 0]), "not two ascending integers"),
    "overlap": (two([0, 8], [4, 12], 12), "b overlaps the array before it: it begins at byte"),
    "the same bytes": (two([0, 8], [0, 8], 8), "overlaps the array before it"),
    "gap": (two([0, 8], [12, 20], 20), "b leaves a gap before it"),
    "bytes at the end": (two([0, 8], [8, 16], 20), "the arrays end at byte .*, but the file at"),
    "unknown type": (header(dtype="F31"), "is of the unknown type 'F31'"),
    "type that is no string": (header(dtype=["F32"]), "is of the unknown type"),
    "more in an entry": (header(more=1), "not an object of dtype, shape and data_offsets"),
    "name twice": (
        files.raw_safetensors(
            b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
            b'"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}',
            bytes(8),
        ),
        "names occur twice: 'a'",
    ),
    "header too long": (struct.pack("<Q", 2**60) + b"{}", "begins with"),
    "header of blanks": (files.raw_safetensors(b"{}" + b" " * (1 << 20)), "the header has .* bytes, wanted at most"),
    "deep header": (files.raw_safetensors(b'{"a":' + b"[" * 100000), "nests too deep"),
    "header that is a list": (files.raw_safetensors(b"{]"), "no JSON"),
    "header that is no text": (files.raw_safetensors(b"{\xff\xfe}"), "no JSON"),
    "a number of many digits": (files.raw_safetensors(b'{"a":' + b"9" * 10000 + b"}"), "no JSON"),
    "metadata of numbers": (files.raw_safetensors({"__metadata__": {"a": 1}}), "not an object of strings"),
    "member twice": (None, "'a.npy' occurs twice"),
    "bomb": (
        files.zipped([("a.npy", npy(array_header((50 << 20,)), bytes(200 << 20)))], zipfile.ZIP_DEFLATED),
        "bytes unpacked, more than 100 times",
    ),
    "bomb that lies": (lying_size(2**31), "is not compressed, but has"),
    "overlapping members": (shared_bytes(), "overlaps the member before it"),
    "encrypted": (encrypted(), "is encrypted"),
    "bzip2": (
        files.zipped([("a.npy", files.npy(np.ones(4)))], zipfile.ZIP_BZIP2),
        "compressed by method 12",
    ),
    "huge array": (
        files.zipped([("weight_hh_l0.npy", npy(array_header((2**40, 4))))]),
        r"has 0 bytes, but float32 of shape \(1099511627776, 4\)",
    ),
    "negative array": (files.zipped([("a.npy", npy(array_header((-4,)), bytes(4)))]), "wanted integers of at least 0"),
    "array of objects": (
        files.zipped([("a.npy", npy(array_header((1,), "|O"), b"cos\nsystem\n(S'true'\ntR."))]),
        "holds objects, which are pickled and not read",
    ),
    "array of records": (
        files.zipped([("a.npy", npy(array_header((1,), [("a", "<f4")]), bytes(4)))]),
        "header that is none",
    ),
    "array of pairs": (
        files.zipped([("a.npy", npy(array_header((1,), "(2,)<f4"), bytes(8)))]),
        "holds records of .*, wanted plain numbers",
    ),
    "header that calls": (files.zipped([("a.npy", npy("__import__('os').getpid()"))]), "header that is none"),
    "deep npy header": (files.zipped([("a.npy", npy("(" * 4000))]), "header that is none"),
    "long npy header": (
        files.zipped([("a.npy", npy(" " * 70000, version=b"\x02\x00"))]),
        "has a header of 70000 bytes",
    ),
    "no npy": (files.zipped([("a.npy", b"hello")]), "is no NumPy array"),
    "many arrays": (
        files.zipped([(f"{index:x}.npy", npy(array_header((0, 4)))) for index in range(0x1000, 0x1000 + 14500)]),
        "no recurrent layer under PyTorch's names",
    ),
    "many entries": (
        files.raw_safetensors(
            {f"{index:x}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for index in range(8200)}
        ),
        "no recurrent layer under PyTorch's names",
    ),
    "many brackets": (files.raw_safetensors(b'{"a":[' + b"[]," * 170000 + b"[]]}"), "not an object of dtype"),
    "empty zip": (files.zipped([]), "is a zip with nothing"),
    "large directory": (
        files.zipped([(f"{'x' * 200}{index}.npy", b"") for index in range(6000)]),
        "its directory is larger than",
    ),
}


def hostile(name):
    data, reason = HOSTILE[name]
    if data is None:
        with pytest.warns(UserWarning, match="Duplicate name"):
            data = files.zipped([("a.npy", files.npy(np.ones(4))), ("a.npy", files.npy(np.ones(4)))])
    return data, reason


@pytest.mark.parametrize("name", HOSTILE)
def test_refused_with_the_reason(tmp_path, name):
    data, reason = hostile(name)
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(ValueError, match=reason):
        fastrnn.load(tmp_path / "file")


#: Loads each file that it is told of, and writes by how much the most memory ever used went up, in bytes.
MEASURE = """
import gc, json, sys
import fastrnn
from fastrnn.files import npz, pytorch_file, native, safetensors_file
import torch
def high():
    text = open("/proc/self/status").read()
    return int(text.split("VmHWM:")[1].split()[0]) * 1024
def one(path):
    gc.collect()
    open("/proc/self/clear_refs", "w").write("5")  # the mark starts again at what is used now
    before = high()
    try:
        layer = fastrnn.load(path)
    except (ValueError, TypeError, OSError, NotImplementedError):
        layer = None
    return high() - before, layer is not None
first, *paths = sys.argv[1:]
one(first)
print(json.dumps([one(path) for path in paths]))
"""


def memory(paths):
    """For each file, bytes of memory at the peak of loading, and whether it was taken."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("needs Linux")
    pytest.importorskip("torch")
    # With a fixed threshold glibc returns large blocks to the system; what it keeps would count as taken before.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "131072"}
    command = [sys.executable, "-c", MEASURE, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_hostile_files_take_little_memory(tmp_path):
    (tmp_path / "first").write_bytes(small_file("torch", tmp_path))
    paths = []
    for number, name in enumerate(HOSTILE):
        paths.append(tmp_path / str(number))
        paths[-1].write_bytes(hostile(name)[0])
    for name, (taken, is_layer) in zip(HOSTILE, memory([tmp_path / "first", *paths]), strict=True):
        assert taken < 16 << 20 and not is_layer, (name, taken)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_loading_takes_twice_the_arrays(tmp_path, dtype):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    torch = pytest.importorskip("torch")
    model = cases.random_spec(np.random.default_rng(0), "lstm", 700, 1000)
    arrays = files.state_dict(model)
    declared = sum(array.size * 4 for array in arrays.values())
    short = {name: array.astype(getattr(ml_dtypes, dtype, dtype)) for name, array in arrays.items()}
    writers = {"safetensors": files.safetensors}
    if dtype != "bfloat16":
        writers |= {"npz": files.npz, "npz-compressed": lambda arrays: files.npz(arrays, compressed=True)}
    for name, writer in writers.items():
        (tmp_path / name).write_bytes(writer(short))
    if dtype == "float32":
        writers |= {"native": None, "chain": None}
        (tmp_path / "native").write_bytes(files.native(model, tmp_path))
        fastrnn.Sequential(model).save(tmp_path / "chain")
    writers["torch"] = None
    torch.save(
        {name: torch.from_numpy(array).to(getattr(torch, dtype)) for name, array in arrays.items()}, tmp_path / "torch"
    )
    (tmp_path / "first").write_bytes(small_file("torch", tmp_path))
    for name, (taken, is_layer) in zip(
        writers, memory([tmp_path / "first", *(tmp_path / name for name in writers)]), strict=True
    ):
        assert is_layer and taken <= 2 * declared + (16 << 20), (name, taken, declared)
        assert taken > declared / 2, "measured nothing"


def mutations(data, rng):
    """One change of a few bytes: flipped, cut out, doubled, or overwritten by digits and brackets."""
    data = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at, size = rng.randrange(len(data)), rng.randint(1, 8)
        how = rng.randrange(4)
        if how == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif how == 1 and len(data) > size:
            del data[at : at + size]
        elif how == 2:
            data[at:at] = data[at : at + size]
        else:
            data[at : at + size] = bytes(rng.choice(b'0123456789-e.[]{},:"ntf\x00\xff') for _ in range(size))
        data = data or bytearray(b"0")
    return bytes(data)


@pytest.mark.parametrize("name", sorted(fuzz_files.TARGETS))
def test_fuzz_targets_on_seeded_mutations(name):
    rng = random.Random(name)
    for seed in fuzz_files.seeds()[name]:
        fuzz_files.TARGETS[name](seed)
        for _ in range(150):
            fuzz_files.TARGETS[name](mutations(seed, rng))


def test_the_fuzz_targets_can_fail(monkeypatch):
    """An error of another kind gets out of a target."""
    monkeypatch.setattr(fuzz_files, "check_model_file", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        fuzz_files.TARGETS["native_config"](b"{}")


def test_the_fuzzer_says_what_it_needs():
    if importlib.util.find_spec("atheris"):
        pytest.skip("atheris is installed")
    done = subprocess.run([sys.executable, ROOT / "bench/fuzz_files.py"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "needs the package atheris, not installed (extra 'fuzz'" in done.stderr
