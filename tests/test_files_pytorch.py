"""PyTorch's files: stored ones with their answers, checkpoints, and what is refused before torch.load sees it."""

import io
import pickle
import pickletools
import zipfile
from pathlib import Path

import cases
import numpy as np
import pytest

import fastrnn
from fastrnn import cli

torch = pytest.importorskip("torch")

FOLDER = Path(__file__).parent / "golden" / "pytorch"
ANSWERS = dict(np.load(FOLDER / "answers.npz"))
OPTIONS = {"rnn-tanh": {"nonlinearity": "tanh"}, "rnn-relu": {"nonlinearity": "relu"}}
OPTIONS["rnn-cell"] = OPTIONS["rnn-relu"]


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.pt")), ids=lambda path: path.stem)
def test_stored_files_give_the_stored_answers(path):
    layer = fastrnn.load(path, **OPTIONS.get(path.stem, {}))
    assert layer.dtype == (np.float64 if path.stem == "float64" else np.float32) and layer.batch_first
    x, lengths = ANSWERS["x"].copy(), ANSWERS["lengths"]
    mask = np.arange(x.shape[1]) < lengths[:, None]
    x[~mask] = np.nan
    for options in ({"lengths": lengths}, {"mask": mask}):
        y, state = layer(x.astype(layer.dtype), **options)
        np.testing.assert_allclose(y, ANSWERS[f"{path.stem}.y"], atol=1e-6)
        np.testing.assert_allclose(state[0] if layer.kind == "lstm" else state, ANSWERS[f"{path.stem}.h"], atol=1e-6)


def save(tmp_path, content):
    torch.save(content, tmp_path / "model.bin")
    return tmp_path / "model.bin"


def test_a_state_dict_among_others_in_a_checkpoint(tmp_path):
    module, other = torch.nn.GRU(3, 4), torch.nn.LSTM(3, 5)
    path = save(tmp_path, {"ema": {"rnn": 1}, "model": module.state_dict(), "epoch": 3, 7: {"weight_ih_l0": 3}})
    assert fastrnn.load(path)._engine.fingerprint == fastrnn.GRU.from_torch(module)._engine.fingerprint
    path = save(tmp_path, {"model": module.state_dict(), "ema": other.state_dict()})
    with pytest.raises(ValueError, match=r"prefix='model\.': GRU of .*; prefix='ema\.': LSTM of 3 inputs, 5 units"):
        fastrnn.load(path)
    assert fastrnn.load(path, prefix="ema").kind == "lstm"


def test_a_state_dict_deep_in_a_checkpoint(tmp_path):
    """Its keys lead to it; what lies deeper still, and what refers to itself, is not looked into."""
    module, other = torch.nn.GRU(3, 4), torch.nn.LSTM(3, 5)
    trainer = {"step": 7, "optimizer": {"state": {0: torch.ones(3)}}}
    content = trainer | {"nets": {"coder": {"weights": module.state_dict(), "best": torch.ones(1)}}}
    content["nets"]["again"] = content
    assert (
        fastrnn.load(save(tmp_path, content))._engine.fingerprint == fastrnn.GRU.from_torch(module)._engine.fingerprint
    )
    content["nets"]["teacher"] = other.state_dict()
    with pytest.raises(
        ValueError, match=r"prefix='nets\.teacher\.': LSTM of .*; prefix='nets\.coder\.weights\.': GRU of"
    ):
        fastrnn.load(save(tmp_path, content))
    path = save(tmp_path, content)
    assert fastrnn.load(path, prefix="nets.coder.weights").kind == "gru"
    assert cli.main(["verify", str(path), "--prefix", "nets.coder.weights"]) == 0
    linear = torch.nn.Linear(2, 2).state_dict()
    with pytest.raises(ValueError, match=r"no recurrent layer under PyTorch's names.*it has head\.weight, head\.bias$"):
        fastrnn.load(save(tmp_path, {"epoch": 3, "model": {f"head.{name}": value for name, value in linear.items()}}))


# Files as PyTorch wrote them before 1.6


def save_legacy(tmp_path, content):
    torch.save(content, tmp_path / "model.pkl", _use_new_zipfile_serialization=False)
    return tmp_path / "model.pkl"


@pytest.mark.parametrize("name", ["lstm", "lstm-projection", "float64"])
def test_files_without_a_zip(tmp_path, name):
    stored = FOLDER / f"{name}.pt"
    content = torch.load(stored, weights_only=True)
    path = save_legacy(tmp_path, {"step": 3, "words": {"a": 1}, "model_state": content})
    assert fastrnn.load(path)._engine.fingerprint == fastrnn.load(stored)._engine.fingerprint
    assert cli.main(["verify", str(path)]) == 0
    half = {name: value.to(torch.bfloat16) for name, value in content.items()}
    wanted = fastrnn.load(save(tmp_path, half))._engine.fingerprint
    assert fastrnn.load(save_legacy(tmp_path, half))._engine.fingerprint == wanted


def test_files_without_a_zip_that_lie(tmp_path, capsys):
    module = torch.nn.GRU(3, 4)
    with pytest.raises(
        ValueError, match=r"holds objects of torch\.nn\.modules\.rnn\.GRU.*torch\.save\(module\.state_dict"
    ):
        fastrnn.load(save_legacy(tmp_path, module))
    path = save_legacy(tmp_path, module.state_dict())
    data = path.read_bytes()
    stream = io.BytesIO(data)
    pickles = [list(pickletools.genops(stream)) for _ in range(5)]
    first, second = [argument.encode() for _, argument, _ in pickles[4] if isinstance(argument, str)][:2]
    evil = pickle.dumps({"a": Evil()}, 2)
    content = data.index(b"ccollections\nOrderedDict") - 2
    for changed, reason in {
        data + b"more": "the file has",
        data[:-8]: "the file has",
        data[:content] + evil: r"holds objects of .*print",
        data.replace(
            b"K\x24N", b"J\x00\x00\x00\x10N", 1
        ): r"storages have .* bytes; the file has",  # 36 numbers, or 2**28
        data.replace(b"K\x24N", b"K\x23N", 1): "the file has",
        first.join(data.rsplit(second, 1)): "names a storage twice",  # the second would keep what was in the memory
        data[: len(data) // 3]: "damaged or hostile",
    }.items():
        assert changed != data
        path.write_bytes(changed)
        with pytest.raises(ValueError, match=reason):
            fastrnn.load(path)
    assert "this was run" not in capsys.readouterr().out


def test_views_of_one_storage(tmp_path):
    """Tensors of a flat buffer, or transposed, as exporters leave them."""
    module = torch.nn.GRU(3, 4)
    flat = torch.cat([value.reshape(-1) for value in module.state_dict().values()]).half()
    views, start = {}, 0
    for name, value in module.state_dict().items():
        views[name] = flat[start : start + value.numel()].view(value.shape)
        start += value.numel()
    views["weight_hh_l0"] = views["weight_hh_l0"].t().contiguous().t()
    wanted = fastrnn.GRU.from_state_dict(views)
    assert fastrnn.load(save(tmp_path, views))._engine.fingerprint == wanted._engine.fingerprint


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (torch.nn.LSTM(3, 4), r"holds objects of torch\.nn\.modules\.rnn\.LSTM.*torch\.save\(module\.state_dict\(\)"),
        (torch.ones(3), "holds a Tensor, wanted a state dict"),
        ([1, 2], "holds a list, wanted a state dict"),
        ({}, "no recurrent layer under PyTorch's names.*it has nothing"),
        ({"weight_hh_l0": 3}, "it has nothing"),
        ({"a": np.float64(3)}, "holds objects of numpy"),
        ({"a": bytearray(3)}, r"holds objects of .*bytearray"),
        ({"weight_hh_l0": torch.ones(8, 2).to_sparse()}, r"holds objects of torch\._utils\._rebuild_sparse_tensor"),
        ({"weight_hh_l0": torch.ones(8, 2, device="meta")}, "holds objects of|without data"),
        ({"weight_hh_l0": torch.ones(8, 2, dtype=torch.int8)}, "weight_hh_l0 is int8, wanted"),
    ],
)
def test_what_is_refused(tmp_path, content, reason):
    with pytest.raises(ValueError, match=reason):
        fastrnn.load(save(tmp_path, content))


class Evil:
    def __reduce__(self):
        return print, ("this was run",)


def rebuilt(path, change):
    """A PyTorch file whose members are changed by `change(name, data)`; None leaves one out."""
    out = io.BytesIO()
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(out, "w") as target:
        for info in source.infolist():
            data = change(info.filename.split("/", 1)[1], source.read(info))
            if data is not None:
                target.writestr(info.filename, data)
    path.write_bytes(out.getvalue())
    return path


def test_pickles_are_looked_through_and_not_run(tmp_path, capsys):
    path = save(tmp_path, torch.nn.GRU(3, 4).state_dict())
    for protocol in (0, 2, 4):
        data = pickle.dumps({"a": Evil()}, protocol)
        with pytest.raises(ValueError, match=r"holds objects of .*print|operation STACK_GLOBAL"):
            fastrnn.load(rebuilt(path, lambda name, old, data=data: data if name == "data.pkl" else old))
    (tmp_path / "raw").write_bytes(pickle.dumps(Evil(), 2))
    with pytest.raises(ValueError, match="is a pickle, which can run any program"):
        fastrnn.load(tmp_path / "raw")
    assert "this was run" not in capsys.readouterr().out


def test_storages_that_lie_and_pickles_that_swell(tmp_path):
    module = torch.nn.GRU(3, 4).state_dict()

    def larger(name, data):
        """The first storage, of 36 numbers, is said to have 2**28."""
        return data.replace(b"K\x24", b"J\x00\x00\x00\x10", 1) if name == "data.pkl" else data

    with pytest.raises(ValueError, match=r"size|storage of"):
        fastrnn.load(rebuilt(save(tmp_path, module), larger))
    for swollen in (b"\x80\x02(" + b"}" * (1 << 18) + b"l.", b"\x80\x02" + b"(" * (1 << 18)):
        with pytest.raises(ValueError, match=r"data\.pkl is damaged or hostile: it makes more than"):
            fastrnn.load(rebuilt(save(tmp_path, module), lambda name, old, new=swollen: new if "pkl" in name else old))
    with pytest.raises(ValueError, match="another byte order"):
        fastrnn.load(rebuilt(save(tmp_path, module), lambda name, data: b"big" if name == "byteorder" else data))
    with pytest.raises(ValueError):
        fastrnn.load(rebuilt(save(tmp_path, module), lambda name, data: None if name == "data/1" else data))


def test_without_torch(tmp_path, monkeypatch):
    from fastrnn import extras

    path = save(tmp_path, torch.nn.GRU(3, 4).state_dict())
    monkeypatch.setattr(extras.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"is a PyTorch file, which needs the package torch, .*extra 'torch'"):
        fastrnn.load(path)


def test_the_layer_equals_the_live_module(rng, tmp_path):
    for kind in ("LSTM", "GRU"):
        module = getattr(torch.nn, kind)(3, 5, 2, bidirectional=True, batch_first=True)
        found = fastrnn.load(save(tmp_path, torch.nn.Sequential(module, torch.nn.Linear(10, 2)).state_dict()))
        wanted = cases.LAYERS[kind.lower()].from_torch(module)
        assert repr(found) == repr(wanted) and found._engine.fingerprint == wanted._engine.fingerprint
