"""Checkpoints that are damaged or made to harm: refused with the reason, before TensorFlow sees them."""

import shutil
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from checkpoint_cases import OLD, TRAINED

from fastrnn.files import tensorflow_file, tensorflow_index
from fastrnn.files.tensorflow_index import read_index
from fastrnn.importers.tensorflow_checkpoint import Variable, spec_from_checkpoint

REFUSED = (ValueError, TypeError, OSError, NotImplementedError)


def varint(value):
    digits = []
    while value > 127:
        digits.append(value & 127 | 128)
        value >>= 7
    return bytes([*digits, value])


def field(number, value):
    """A field of a protocol buffer."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value % (1 << 64))
    return varint(number << 3 | 2) + varint(len(value)) + value


def entry(shape, size, offset=0, kind=1, shard=0, more=b""):
    axes = b"".join(field(2, field(1, axis)) for axis in shape)
    return field(1, kind) + field(2, axes) + field(3, shard) + field(4, offset) + field(5, size) + more


def block(items):
    rows = b"".join(b"\0" + varint(len(key)) + varint(len(value)) + key + value for key, value in items)
    return rows + bytes(4) + b"\1\0\0\0"


HEADER = field(1, 1)


def table(entries, header=HEADER):
    """The bytes of an index with these entries; checksums are left out, for they can be right in a hostile file."""
    data = block([(b"", header), *sorted(entries.items())])
    places = block([(b"zzz", varint(0) + varint(len(data)))])
    body = data + bytes(5) + places + bytes(5)
    footer = varint(0) + varint(0) + varint(len(data) + 5) + varint(len(places))
    return body + footer.ljust(40, b"\0") + (0xDB4775248B80FB57).to_bytes(8, "little")


def write(folder, index, data=bytes(256)):
    prefix = folder / "model.ckpt"
    Path(f"{prefix}.index").write_bytes(index)
    Path(f"{prefix}.data-00000-of-00001").write_bytes(data)
    return str(prefix)


@pytest.fixture
def never_read(monkeypatch):
    """TensorFlow must not be reached."""

    def refuse(path):
        raise AssertionError("TensorFlow was asked")

    monkeypatch.setattr(tensorflow_file, "reader_of", lambda path: refuse)


GOOD = {b"rnn/lstm_cell/kernel": entry((5, 8), 160), b"rnn/lstm_cell/bias": entry((8,), 32, 160)}


def test_the_table_that_the_others_are_made_from_is_good(tmp_path):
    entries = read_index(write(tmp_path, table(GOOD)))
    assert {name: found.shape for name, found in entries.items()} == {
        "rnn/lstm_cell/kernel": (5, 8),
        "rnn/lstm_cell/bias": (8,),
    }


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({b"a": entry((1 << 40, 1 << 40), 160)}, "a has 2 axes, 1099511627776, 1099511627776: there is no such array"),
        ({b"a": entry((-1,), 160)}, "a has 1 axes, 18446744073709551615: there is no such array"),
        ({b"a": entry((1 << 40,), 1 << 42)}, "has 256 bytes, but .* says that there are 4398046511104"),
        ({b"a": entry((1 << 40,), 160)}, "a is float32 of shape (1099511627776,), but has 160 bytes"),
        ({b"a": entry((8,), 32, 1 << 63)}, "says that there are"),
        ({b"a": entry((8,), 32, 159)}, "tensors overlap at byte 159"),
        ({b"a": entry((8,), 32, 192, shard=1)}, "a is in data file 1 of 1"),
        ({b"a": entry((1,) * 255, 4, 192)}, "a has 255 axes"),
        ({b"a": field(1, 1) + field(2, field(3, 1))}, "the shape of a is not known"),
        ({b"a": entry((1 << 40,), 0, more=field(7, b""))}, "in slices have 4398046511104 bytes"),
        ({b"a" * 5000: entry((1,), 4, 192)}, "longer than its block, or its name is"),
        ({b"\xff": entry((1,), 4, 192)}, "is no UTF-8"),
        ({b"a": b"\x0b"}, "wire type 3"),
        ({b"a": b"\x0a\x7f"}, "a field is longer than its message"),
        ({b"a": field(1, b"abc")}, "a number is no number"),
        ({b"a": field(2, 1)}, "the shape of a is a number"),
        ({b"a": b"\xff" * 11}, "more than 64 bits"),
        ({b"a": b"\x08"}, "a number is cut off"),
    ],
)
def test_hostile_entries(tmp_path, never_read, change, reason):
    prefix = write(tmp_path, table(GOOD | change))
    with pytest.raises(ValueError, match=_escaped(reason)) as caught:
        tensorflow_file.read(prefix, scope="rnn", forget_bias=1.0)
    assert str(tmp_path) in str(caught.value)


def _escaped(reason):
    return reason.replace("(", r"\(").replace(")", r"\)")


@pytest.mark.parametrize(
    ("index", "reason"),
    [
        (b"", "it has 0 bytes"),
        (bytes(100), "its end is not a table's"),
        (table(GOOD, field(1, 0)), "it has 0 data files"),
        (table(GOOD, field(1, 1) + field(2, 1)), "of byte order 1"),
        (
            table(GOOD)[:-48] + (b"\0\0" + varint(1 << 62) * 2).ljust(40, b"\0") + table(GOOD)[-8:],
            "a block is said to be",
        ),
        (
            table(GOOD)[:-48] + (b"\0\0" + varint(0) + varint(3)).ljust(40, b"\0") + table(GOOD)[-8:],
            "a block is said to",
        ),
    ],
)
def test_hostile_tables(tmp_path, never_read, index, reason):
    with pytest.raises(ValueError, match=reason):
        tensorflow_file.read(write(tmp_path, index), forget_bias=1.0)


def test_a_block_that_is_named_many_times(tmp_path):
    """A small file must not become many entries."""
    data = block([(b"", HEADER), *sorted(GOOD.items())])
    places = block([(b"z%04d" % k, varint(0) + varint(len(data))) for k in range(1000)])
    footer = varint(0) + varint(0) + varint(len(data) + 5) + varint(len(places))
    index = data + bytes(5) + places + bytes(5) + footer.ljust(40, b"\0") + table(GOOD)[-8:]
    with pytest.raises(ValueError, match="follows"):
        read_index(write(tmp_path, index))


def test_compressed_and_large_indices_are_not_read(tmp_path, monkeypatch):
    index = table(GOOD)
    with pytest.raises(NotImplementedError, match="compressed"):
        read_index(
            write(
                tmp_path,
                index[: index.index(bytes(4) + b"\1\0\0\0") + 8]
                + b"\1"
                + index[index.index(bytes(4) + b"\1\0\0\0") + 9 :],
            )
        )
    prefix = write(tmp_path, index)
    monkeypatch.setattr(tensorflow_index, "MOST_BYTES", len(index) - 1)
    with pytest.raises(NotImplementedError, match="wanted at most"):
        read_index(prefix)


def test_checkpoints_of_objects_are_not_read(tmp_path):
    graph = {b"_CHECKPOINTABLE_OBJECT_GRAPH": entry((), 5, 192, kind=7)}
    with pytest.raises(
        NotImplementedError, match=r"tf.train.Checkpoint.*wanted a checkpoint of tf.compat.v1.train.Saver"
    ):
        tensorflow_file.variables_of(write(tmp_path, table(GOOD | graph)))


def test_missing_files(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_index(str(tmp_path / "nothing"))
    shutil.copy(f"{TRAINED}.index", tmp_path / "model.ckpt.index")
    with pytest.raises(FileNotFoundError, match="data-00000-of-00001"):
        tensorflow_file.read(str(tmp_path / "model.ckpt"), forget_bias=1.0)


def test_data_cut_off_at_every_byte(tmp_path, never_read):
    data = Path(f"{OLD}.data-00000-of-00001").read_bytes()
    prefix = write(tmp_path, Path(f"{OLD}.index").read_bytes())
    for size in range(0, len(data), 7):
        Path(f"{prefix}.data-00000-of-00001").write_bytes(data[:size])
        with pytest.raises(ValueError, match=f"has {size} bytes, but"):
            tensorflow_file.read(prefix, scope="gru")


def test_an_index_cut_off_or_changed_at_every_byte(tmp_path):
    """Nothing but the four exceptions comes out, and little memory is taken. Checksums are TensorFlow's part."""
    index = Path(f"{OLD}.index").read_bytes()
    prefix = write(tmp_path, index, Path(f"{OLD}.data-00000-of-00001").read_bytes())
    tracemalloc.start()
    try:
        for at in range(len(index)):
            for changed in (index[:at], *(index[:at] + bytes([index[at] ^ bit]) + index[at + 1 :] for bit in (1, 128))):
                Path(f"{prefix}.index").write_bytes(changed)
                try:
                    table = tensorflow_file.variables_of(prefix)
                except REFUSED:
                    continue
                assert len(changed) == len(index)
                assert sum(4 * int(np.prod(found.shape)) for found in table.values()) < 1 << 20
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_an_index_that_grows_when_it_is_read(tmp_path):
    """Names that share their beginnings are short in the file, and entries take more memory than their bytes."""
    names = b"\0" + varint(4000) + b"\0" + b"a" * 4000
    names += b"".join(varint(4000) + b"\x04\0" + b"%04d" % k for k in range(2000))
    shared = b"\0\0" + varint(len(HEADER)) + HEADER + names + bytes(4) + b"\1\0\0\0"
    for data in (shared, block([(b"", HEADER), *((b"%05d" % k, b"") for k in range(20_000))])):
        places = block([(b"z", varint(0) + varint(len(data)))])
        footer = varint(0) + varint(0) + varint(len(data) + 5) + varint(len(places))
        index = data + bytes(5) + places + bytes(5) + footer.ljust(40, b"\0") + table(GOOD)[-8:]
        prefix = write(tmp_path, index)
        tracemalloc.start()
        try:
            with pytest.raises(NotImplementedError, match="more than 20000 variables"):
                read_index(prefix)
            assert tracemalloc.get_traced_memory()[1] < 16 << 20
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize(
    "names",
    [
        [f"s{k}/rnn/lstm_cell/kernel" for k in range(20_000)],
        [f"rnn/multi_rnn_cell/cell_{k}/lstm_cell/kernel" for k in range(20_000)],
        ["/".join(["cell_0", "multi_rnn_cell"] * 128) + f"/{k}/kernel" for k in range(1500)],
        ["/".join(["rnn"] * 1000) + f"/{k}/lstm_cell/kernel" for k in range(1000)],
    ],
)
def test_many_names_take_no_long_time(names):
    """The time does not grow with the square of their number; the bound is generous."""
    table = {name: Variable((5, 8), "float32") for name in names}
    start = time.monotonic()
    with pytest.raises(ValueError):
        spec_from_checkpoint("", table, None, scope=None, forget_bias=1.0)
    assert time.monotonic() - start < 60
