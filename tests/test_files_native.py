"""Our own format: saved and loaded again, the same bits, over every cell and option."""

import json
import os
import stat
import struct

import cases
import files
import numpy as np
import pytest
from bits import MODELS, assert_same_bits

import fastrnn
from fastrnn.layers import LAYERS

SHAPES = [(1, False), (2, True), (3, False)]


def run(layer, batch):
    return layer(batch.x, batch.state, lengths=batch.lengths)


@pytest.mark.parametrize("options", [False, True])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize(("num_layers", "bidirectional"), SHAPES)
@pytest.mark.parametrize("name", MODELS)
def test_the_same_bits(rng, tmp_path, name, num_layers, bidirectional, dtype, options):
    kind, arguments = MODELS[name]
    spec = cases.random_spec(rng, kind, 3, 5, num_layers, bidirectional, dtype=np.dtype(dtype), **arguments)
    spec = cases.random_options(rng, spec) if options else spec
    layer = LAYERS[kind](spec)
    layer.save(tmp_path / "model")
    again = fastrnn.load(tmp_path / "model")
    assert type(again) is type(layer) and repr(again) == repr(layer)
    assert again._engine.fingerprint == layer._engine.fingerprint
    batch = cases.random_batch(rng, spec, dtype=np.dtype(dtype))
    assert_same_bits(run(again, batch), run(layer, batch))
    again.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "model").read_bytes()


@pytest.mark.parametrize("option", ["reverse", "batch_first"])
def test_the_layers_own_options(rng, tmp_path, option):
    from dataclasses import replace

    spec = cases.random_spec(rng, "gru", 3, 5)
    layer = fastrnn.GRU(replace(spec, **{option: not getattr(spec, option)}))
    layer.save(tmp_path / "model")
    again = fastrnn.load(tmp_path / "model")
    assert (again.reverse, again.batch_first) == (layer.reverse, layer.batch_first)
    x = rng.standard_normal((4, 4, 3)).astype("f4")
    assert_same_bits(again(x), layer(x))


def test_it_is_a_standard_safetensors_file(rng, tmp_path):
    library = pytest.importorskip("safetensors.numpy")
    spec = cases.random_spec(rng, "lstm", 3, 5, 2, True, 4, peephole=True)
    fastrnn.LSTM(spec).save(tmp_path / "model.safetensors")
    arrays = library.load_file(tmp_path / "model.safetensors")
    assert "peephole_l1_reverse" in arrays and "weight_hr_l0" in arrays
    np.testing.assert_array_equal(arrays["weight_ih_l1_reverse"], spec.cells[3].weight_ih)


def test_saving_replaces_a_file_when_it_is_whole(rng, tmp_path):
    layer, path = fastrnn.GRU(files.small_spec()), tmp_path / "model"
    path.write_bytes(b"old")
    layer.save(str(path))
    assert fastrnn.load(path).hidden_size == 2
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask
    with pytest.raises(IsADirectoryError):
        layer.save(tmp_path)
    with pytest.raises(OSError):
        layer.save(tmp_path / "none" / "model")
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]


def test_constructor_options_and_surplus_ones(tmp_path):
    fastrnn.GRU(files.small_spec()).save(tmp_path / "model")
    layer = fastrnn.load(tmp_path / "model", dtype="f8", backend="blas")
    assert layer.dtype == np.float64 and layer.backend == "blas"
    with pytest.raises(ValueError, match=r"batch_first and prefix are given, but .* says all that load needs"):
        fastrnn.load(tmp_path / "model", prefix="", batch_first=True)


def changed(data, change):
    """A file of our format with another configuration, or metadata."""
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    config = json.loads(header["__metadata__"]["config"])
    change(header, config)
    if "config" in header["__metadata__"]:
        header["__metadata__"]["config"] = json.dumps(config)
    return files.raw_safetensors(header, data[8 + length :])


def test_files_that_do_not_fit(tmp_path):
    data = files.native(files.small_spec("lstm"), tmp_path)
    for reason, change in {
        "unknown name 'color'": lambda header, config: config.update(color=1),
        r"cells\[0\] has the unknown name 'color'": lambda header, config: config["cells"][0].update(color=1),
        "__metadata__ has the unknown name 'color'": lambda header, config: header["__metadata__"].update(color="1"),
        "config has no reverse": lambda header, config: config.pop("reverse"),
        r"cells\[0\] has no coupled": lambda header, config: config["cells"][0].pop("coupled"),
        "is version '3' of": lambda header, config: header["__metadata__"].update(format_version="3"),
        "__metadata__ has no config": lambda header, config: header["__metadata__"].pop("config"),
        "hidden_size is true, wanted an integer": lambda header, config: config.update(hidden_size=True),
        "kind is 'mlp'": lambda header, config: config.update(kind="mlp"),
        "bias_hh_l0 is surplus|bias_ih_l1 is surplus": lambda header, config: header.update(
            bias_ih_l1=header.pop("bias_ih_l0")
        ),
        "cells has 1 entries, wanted 1000000000000": lambda header, config: config.update(num_layers=10**12),
        r"weight_ih_l0 has shape \(8, 2\), wanted \(12, 2\)": lambda header, config: config.update(hidden_size=3),
        "names 'swish', which is unknown": lambda header, config: config["cells"][0]["activations"][0].__setitem__(
            0, "swish"
        ),
        r"cells\[0\] has cell_clip 'x'": lambda header, config: config["cells"][0].update(cell_clip="x"),
        "weight_ih_l0 is float32, wanted float64": lambda header, config: config.update(dtype="float64"),
    }.items():
        (tmp_path / "bad").write_bytes(changed(data, change))
        with pytest.raises(ValueError, match=reason):
            fastrnn.load(tmp_path / "bad")
    (tmp_path / "good").write_bytes(changed(data, lambda header, config: None))
    assert fastrnn.load(tmp_path / "good").kind == "lstm"


def test_a_link_stays_and_a_pipe_is_refused(rng, tmp_path):
    layer = LAYERS["rnn"](cases.random_spec(rng, "rnn", 3, 5))
    link, pipe = tmp_path / "link", tmp_path / "pipe"
    link.symlink_to(tmp_path / "real")
    layer.save(link)
    assert link.is_symlink() and fastrnn.load(tmp_path / "real").hidden_size == 5
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="is a device or a pipe, wanted a file"):
        layer.save(pipe)
    assert pipe.is_fifo()
