"""A program that no one here wrote, accelerated: metapredict, which predicts the disordered parts of proteins.

Its package has three trained models of PyTorch, and 500 proteins with the scores that its authors got from each model
on a CPU. Its function packs batches of sequences, runs the model's LSTM under no_grad, and linear layers on the result.
Needs the extra `oracle`.
"""

from importlib.resources import files

import numpy as np
import pytest

pytest.importorskip("metapredict", reason="needs metapredict: pip install -e '.[oracle]'")

import torch
from metapredict.backend import predictor

from fastrnn.torch import accelerate

DATA = files("metapredict") / "tests" / "input_data"
VERSIONS = ["V1", "V2", "V3"]
PROTEINS = 60


def read_proteins():
    """Names to sequences: the shortest proteins and two long ones, in random order."""
    records = (DATA / "ground_truth_500_seqs.fasta").read_text().split(">")[1:]
    proteins = {record.splitlines()[0]: "".join(record.splitlines()[1:]) for record in records}
    assert len(proteins) == 500
    names = sorted(proteins, key=lambda name: len(proteins[name]))
    names = names[: PROTEINS - 2] + names[300:302]
    return {names[k]: proteins[names[k]] for k in np.random.default_rng(5).permutation(PROTEINS)}


def predict(inputs, version):
    return predictor.predict(
        inputs, version=version, use_device="cpu", round_values=False, normalized=False, batch_size=32
    )


@pytest.fixture(params=VERSIONS)
def version(request, monkeypatch):
    """A version whose model is loaded anew and not yet accelerated; one thread, as PyTorch's wait for each other."""
    monkeypatch.setattr(predictor, "loaded_models", {})
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield request.param
    torch.set_num_threads(threads)


def accelerate_loaded():
    """Accelerate the model that the package keeps, in place."""
    (model,) = predictor.loaded_models.values()
    plain = type(model.lstm)
    assert accelerate(model, inplace=True) is model and plain is torch.nn.LSTM and type(model.lstm) is not plain


def test_batches(version):
    """Packed batches of 32 give the scores of the plain model, and those that the package's authors stored."""
    proteins = read_proteins()
    plain = predict(proteins, version)
    accelerate_loaded()
    fast = predict(proteins, version)
    stored = np.load(DATA / f"ground_truth_500_{version.lower()}_cpu.npy", allow_pickle=True).item()
    assert len(fast) == PROTEINS
    for name, (sequence, scores) in fast.items():
        assert sequence == proteins[name] and len(scores) == len(sequence)
        np.testing.assert_allclose(scores, plain[name][1], rtol=0, atol=1e-5)
        np.testing.assert_allclose(np.clip(scores, 0, 1), stored[name], rtol=0, atol=1e-5)
    assert max(abs(scores - plain[name][1]).max() for name, (_, scores) in fast.items()) > 0  # other code computed them


def test_one_by_one(version):
    sequences = list(read_proteins().values())[:10]
    plain = [predict(sequence, version) for sequence in sequences]
    accelerate_loaded()
    for sequence, wanted in zip(sequences, plain, strict=True):
        np.testing.assert_allclose(predict(sequence, version), wanted, rtol=0, atol=1e-5)
