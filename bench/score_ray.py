"""Words to phonemes on workers of Ray Data, beside as many plain processes: the same answers, and how fast.

    pip install '.[ray,demo]'
    python bench/score_ray.py                        # the whole dictionary of CMU, 117,493 words, on 2 workers
    python bench/score_ray.py --words 20000 --workers 1 --kill

Both are timed from the beginning of the first batch to the end of the last one, so without the start of processes; the
time of everything is printed as well. With ``--kill`` one worker of Ray is killed half way; its batches run again.
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import os
import signal
import tempfile
import time
from pathlib import Path

from fastrnn import demo, set_num_threads

BATCH = 2000


def make(directory, kill_at=0):
    """A function that runs words, and writes when it began and ended."""
    model, calls = demo.G2P(), []

    def run(words):
        calls.append(len(words))
        if len(calls) == kill_at:
            try:
                os.close(os.open(Path(directory) / "killed", os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                pass
            else:
                os.kill(os.getpid(), signal.SIGKILL)
        start = time.time()
        found = model.phonemes(words)
        with open(Path(directory) / f"{os.getpid()}.txt", "a") as file:
            file.write(f"{start} {time.time()}\n")
        return found

    return run


def share(directory, words, ready):
    """A plain process."""
    set_num_threads(1)
    run = make(directory)
    ready.wait()
    found = []
    for start in range(0, len(words), BATCH):
        found += run(words[start : start + BATCH])
    return found


def plain(words, workers, directory):
    with multiprocessing.get_context("spawn").Manager() as manager:
        ready = manager.Barrier(workers)
        with multiprocessing.get_context("spawn").Pool(workers) as pool:
            parts = [words[number::workers] for number in range(workers)]
            found = pool.starmap(share, [(directory, part, ready) for part in parts])
    answers = dict(zip((word for part in parts for word in part), (row for part in found for row in part), strict=True))
    return [answers[word] for word in words]


def with_ray(words, workers, directory, kill):
    import ray

    from fastrnn import ray as fray

    options = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
    ray.init(num_cpus=workers + 1, object_store_memory=100 << 20, **options)
    ray.data.DataContext.get_current().enable_progress_bars = False
    dataset = ray.data.from_items([{"word": word} for word in words], override_num_blocks=8 * workers)
    half = len(words) // BATCH // workers // 2
    scored = dataset.map_batches(
        fray.Predictor,
        fn_constructor_kwargs={
            "model": functools.partial(make, directory, half if kill else 0),
            "inputs": "word",
            "outputs": "phonemes",
        },
        batch_format="pyarrow",
        batch_size=BATCH,
        compute=ray.data.ActorPoolStrategy(size=workers),
    )
    answers = {row["word"]: row["phonemes"] for row in scored.take_all()}
    ray.shutdown()
    return [answers[word] for word in words]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--words", type=int)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--kill", action="store_true")
    options = parser.parse_args()
    words = sorted(demo.read_dictionary())
    words = demo.sample_words(words, options.words or len(words))
    answers, seconds = {}, {}
    for name in ("plain", "ray"):
        with tempfile.TemporaryDirectory() as directory:
            start = time.time()
            if name == "plain":
                answers[name] = plain(words, options.workers, directory)
            else:
                answers[name] = with_ray(words, options.workers, directory, options.kill)
            whole = time.time() - start
            times = [line.split() for path in Path(directory).glob("*.txt") for line in path.read_text().splitlines()]
            seconds[name] = max(float(end) for _, end in times) - min(float(begin) for begin, _ in times)
            killed = (Path(directory) / "killed").exists()
        rate, note = len(words) / seconds[name], ", one killed" if killed else ""
        print(f"{name:6} {len(words):,} words, {options.workers} processes: {rate:,.0f} words a second", end="")
        print(f", {whole:.1f} s with their start{note}", flush=True)
    ratio = seconds["plain"] / seconds["ray"]
    print(f"answers equal: {answers['plain'] == answers['ray']}; Ray's speed is {ratio:.2f} of that of plain processes")


if __name__ == "__main__":
    main()
