"""Datasets of Ray Data scored by `fastrnn.ray.Predictor`: the same bytes as in one process, whatever happens."""

import functools
import http.server
import os
import runpy
import signal
import threading
from pathlib import Path

import numpy as np
import pytest

import fastrnn
from fastrnn import demo

ray = pytest.importorskip("ray", reason="needs the package ray")
pytest.importorskip("g2p_en", reason="needs the package g2p_en")

from fastrnn import ray as fray  # noqa: E402

pytestmark = pytest.mark.slow  # a cluster starts

LETTERS = ["<pad>", "<unk>", "</s>", *"abcdefghijklmnopqrstuvwxyz"]
NUM_WORDS = 2000


@pytest.fixture(scope="module", autouse=True)
def no_progress_bars(ray_cluster):
    ray.data.DataContext.get_current().enable_progress_bars = False


@pytest.fixture(scope="module")
def words():
    return demo.sample_words(demo.read_dictionary(), NUM_WORDS)


@pytest.fixture(scope="module")
def phonemes(words):
    return demo.G2P().phonemes(words)


def scored(words, blocks, *, batch_size, concurrency, **arguments):
    """The outputs in the order of the words."""
    rows = [{"number": number, "word": word} for number, word in enumerate(words)]
    dataset = ray.data.from_items(rows, override_num_blocks=blocks).map_batches(
        fray.Predictor,
        fn_constructor_kwargs={"inputs": "word", "outputs": "found", **arguments},
        batch_size=batch_size,
        batch_format="pyarrow",
        concurrency=concurrency,
    )
    found = sorted(dataset.take_all(), key=lambda row: row["number"])
    assert [row["word"] for row in found] == words  # each once
    return [row["found"] for row in found]


def test_a_worker_is_killed_half_way(words, phonemes, tmp_path):
    def make(path):
        model, calls = demo.G2P(), []

        def run(rows):
            calls.append(len(rows))
            if len(calls) == 3:
                try:
                    os.close(os.open(path, os.O_CREAT | os.O_EXCL))  # one worker, once
                except FileExistsError:
                    pass
                else:
                    os.kill(os.getpid(), signal.SIGKILL)
            return model.phonemes(rows)

        return run

    path = str(tmp_path / "killed")
    assert scored(words, 12, batch_size=150, concurrency=2, model=functools.partial(make, path)) == phonemes
    assert os.path.exists(path)


def test_a_model_file_is_fetched_once(words, tmp_path):
    g2p = demo.G2P()
    model = fastrnn.Sequential(fastrnn.Embedding(g2p._letters), g2p.encoder, fastrnn.Last())
    model.save(tmp_path / "encoder.safetensors")
    paths = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

        def do_GET(self):
            paths.append(self.path)
            super().do_GET()

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=tmp_path)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/encoder.safetensors"
        found = scored(words[:400], 5, batch_size=64, concurrency=2, model=url, vocabulary=LETTERS)
        server.shutdown()
    assert paths == ["/encoder.safetensors"]
    ids = [np.array([LETTERS.index(letter) for letter in word]) for word in words[:400]]
    assert np.array(found, "f4").tobytes() == np.array(model(ids)).tobytes()


def test_the_example(capsys):
    runpy.run_path(str(Path(__file__).parents[1] / "examples" / "score_ray.py"))["main"](300, 1)
    assert capsys.readouterr().out.splitlines()[-1] == "300 of 300 words as in one process"
