"""Models in files and pickles: the same bits, and configurations that do not fit refused with every reason."""

import copy
import json
import pickle
import struct

import files
import numpy as np
import pytest
from bits import assert_same_bits
from model_cases import LENGTHS, draw, linear, pad, random_model, random_rows, recurrent, text

import fastrnn
from fastrnn import Sequential, _core
from fastrnn.models import ops


@pytest.mark.parametrize("seed", range(12))
def test_saved_pickled_and_copied_models_give_the_same_bits(tmp_path, seed):
    rng = np.random.default_rng(seed)
    spec = random_model(rng)
    model = Sequential.from_spec(spec)
    x = pad(random_rows(rng, spec))
    y = model(x, lengths=LENGTHS)
    model.save(tmp_path / "model")
    again = fastrnn.load(tmp_path / "model")
    for other in (again, pickle.loads(pickle.dumps(model))):
        assert repr(other) == repr(model) and other._engine.fingerprint == model._engine.fingerprint
        assert_same_bits(other(x, lengths=LENGTHS), y, text(spec))
    assert copy.copy(model) is model and copy.deepcopy(model) is model
    again.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "model").read_bytes()


def test_a_pickle_keeps_the_instruction_set_that_was_named(rng):
    for isa in (None, *_core.available_isas()):
        model = Sequential(linear(rng, 3, 4), isa=isa)
        assert pickle.loads(pickle.dumps(model)).isa == model.isa


def test_a_file_of_a_model_is_a_standard_safetensors_file(rng, tmp_path):
    library = pytest.importorskip("safetensors.numpy")
    table, layer = draw(rng, 9, 3), recurrent(rng, 3, 4)
    Sequential(ops.Embedding(table), layer, batch_first=False).save(tmp_path / "model")
    arrays = library.load_file(tmp_path / "model")
    np.testing.assert_array_equal(arrays["0.weight"], table)
    np.testing.assert_array_equal(arrays["1.weight_ih_l0"], layer.cells[0].weight_ih)
    assert not fastrnn.load(tmp_path / "model").batch_first


def test_options_of_load(rng, tmp_path):
    Sequential(linear(rng, 3, 4)).save(tmp_path / "model")
    assert fastrnn.load(tmp_path / "model", isa="scalar").isa == "scalar"
    for options in ({"dtype": "f4"}, {"backend": "fused"}):
        name = next(iter(options))
        with pytest.raises(ValueError, match=rf"{name} given, but the file is loaded as a fastrnn\.Sequential"):
            fastrnn.load(tmp_path / "model", **options)
    with pytest.raises(ValueError, match=r"prefix is given, but .* says all that load needs"):
        fastrnn.load(tmp_path / "model", prefix="x")


def change(data, edit):
    """A file whose configuration is edited."""
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    config = json.loads(header["__metadata__"]["config"])
    edit(config, header)
    header["__metadata__"]["config"] = json.dumps(config)
    return files.raw_safetensors(header, data[8 + length :])


def set_op(index, **options):
    return lambda config, header: config["ops"][index].update(options)


def rename(old, new):
    def edit(config, header):
        header[new] = header.pop(old)

    return edit


def retype(name, dtype):
    def edit(config, header):
        begin, end = header[name]["data_offsets"]
        header[name].update(dtype=dtype, shape=[(end - begin) // 8])

    return edit


EDITS = {
    "ops is no list": lambda config, header: config.update(ops={}),
    "config has no batch_first": lambda config, header: config.pop("batch_first"),
    "batch_first is 1, wanted true or false": lambda config, header: config.update(batch_first=1),
    "config has the unknown name 'kind'": lambda config, header: config.update(kind="lstm"),
    "0.weight is surplus; 1.bias is surplus": lambda config, header: config.update(ops=config["ops"][2:]),
    r"ops\[0\] has op null": set_op(0, op=None),
    r"ops\[0\] has op 'Lstm', wanted layer, activation or one of Embedding": set_op(0, op="Lstm"),
    r'ops\[0\] has op \["Linear"\]': set_op(0, op=["Linear"]),
    r"ops\[1\] has the unknown name 'groups'": set_op(1, groups=2),
    r"ops\[1\] has no stride": lambda config, header: config["ops"][1].pop("stride"),
    "stride is '2', wanted an integer": set_op(1, stride="2"),
    "stride is 0, wanted an integer of at least 1": set_op(1, stride=0),
    "dilation is true": set_op(1, dilation=True),
    "padding is {}, wanted valid, same, causal, or one or two integers": set_op(1, padding={}),
    r"padding is \[1, 2, 3\], wanted valid, same, causal, or one or two integers": set_op(1, padding=[1, 2, 3]),
    "dilation is 2305843009213693952, wanted an integer of at most 4194304": set_op(1, dilation=2**61),
    "stride is 1000000000000000000000000000000, wanted an integer": set_op(1, stride=10**30),
    "mask_zero is 1, wanted true or false": set_op(0, mask_zero=1),
    r"ops\[2\].input_size is '5', wanted an integer": set_op(2, input_size="5"),
    r"ops\[2\].bidirectional is 0, wanted true or false": set_op(2, bidirectional=0),
    r"ops\[2\].kind is 'elman', wanted lstm, gru or rnn": set_op(2, kind="elman"),
    r"ops\[2\].cells is null, wanted a list": set_op(2, cells=None),
    r"ops\[2\].cells\[0\] has no activations": set_op(2, cells=[{}]),
    "2.weight_ih_l0 is surplus": set_op(2, cells=[]),
    r"ops\[3\] is no activation with two numbers": set_op(3, alpha="x"),
    r"ops\[3\] names 'swish', which is unknown": set_op(3, name="swish"),
    "eps is null, wanted a number": set_op(4, eps=None),
    "eps is -1, wanted a number of at least 0": set_op(4, eps=-1),
    "4.weight is int64, wanted float32 or float64": retype("4.weight", "I64"),
    r"0.weight is missing|0.weight0 is surplus": rename("0.weight", "0.weight0"),
    r"4.bias_ih is surplus": rename("4.bias", "4.bias_ih"),
}


@pytest.fixture(scope="module")
def plain():
    """A model of every kind of option: its file."""
    import tempfile

    rng = np.random.default_rng(3)
    from cases import random_spec

    with tempfile.TemporaryDirectory() as folder:
        Sequential(
            ops.Embedding(draw(rng, 9, 3)),
            ops.Conv1d(draw(rng, 5, 3, 2), draw(rng, 5), padding="causal"),
            random_spec(rng, "lstm", 5, 4),
            "leaky_relu",
            ops.LayerNorm(draw(rng, 4), draw(rng, 4)),
            ops.Mean(),
        ).save(f"{folder}/model")
        with open(f"{folder}/model", "rb") as file:
            return file.read()


@pytest.mark.parametrize("message", EDITS)
def test_a_configuration_that_does_not_fit_is_refused(tmp_path, plain, message):
    (tmp_path / "model").write_bytes(change(plain, EDITS[message]))
    with pytest.raises(ValueError, match=message):
        fastrnn.load(tmp_path / "model")


def test_other_versions_are_refused(tmp_path, plain):
    def edit(config, header):
        header["__metadata__"]["format_version"] = "3"

    (tmp_path / "model").write_bytes(change(plain, edit))
    with pytest.raises(ValueError, match="is version '3' of fastrnn's format, this fastrnn reads '1' and '2'"):
        fastrnn.load(tmp_path / "model")


def test_a_convolution_with_huge_padding_is_no_crash(tmp_path, plain):
    (tmp_path / "model").write_bytes(change(plain, set_op(1, padding=[2**30, 2**30], dilation=2**20)))
    model = fastrnn.load(tmp_path / "model")
    assert model.output_steps(1) > 2**30
    with pytest.raises(ValueError, match="cannot run in a stream"):
        model.stream()


def test_all_reasons_are_in_one_message(tmp_path, plain):
    def edit(config, header):
        config["ops"][1]["stride"] = 0
        config["ops"][4]["eps"] = "x"
        config["ops"][0]["mask_zero"] = 2

    (tmp_path / "model").write_bytes(change(plain, edit))
    with pytest.raises(ValueError, match=r"mask_zero is 2.*stride is 0.*eps is 'x'"):
        fastrnn.load(tmp_path / "model")
