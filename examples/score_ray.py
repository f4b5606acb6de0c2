"""Score a dataset on all processors of a cluster: English words to the phonemes of g2p-en's GRUs, with Ray Data.

    pip install '.[ray,demo]'
    python examples/score_ray.py [NUM_WORDS [WORKERS]]

Ray reads, distributes and repeats; `Predictor` runs each batch sorted by length. The answers are those of one
process, whatever the number of workers. Here the words come from a package; `ray.data.read_parquet` reads yours from
a disk or a bucket. The model is a function because it is two layers and a search; for one layer or Sequential it is
the path of its file, on any file system.
"""

import sys

import ray

from fastrnn import demo
from fastrnn import ray as fray


def main(num_words: int = 2000, workers: int = 2) -> None:
    words = demo.sample_words(demo.read_dictionary(), num_words)
    if not ray.is_initialized():
        ray.init(num_cpus=workers + 1, include_dashboard=False, log_to_driver=False)  # or address="auto": your cluster
    dataset = ray.data.from_items([{"word": word} for word in words], override_num_blocks=4 * workers)
    scored = dataset.map_batches(
        fray.Predictor,
        fn_constructor_kwargs={"model": lambda: demo.G2P().phonemes, "inputs": "word", "outputs": "phonemes"},
        batch_format="pyarrow",  # lists stay Arrow's lists
        batch_size=1000,
        compute=ray.data.ActorPoolStrategy(size=workers),
    )
    found = {row["word"]: row["phonemes"] for row in scored.take_all()}
    for word in words[:5]:
        print(f"{word:16} {' '.join(found[word])}")
    alone = demo.G2P().phonemes(words)
    same = sum(found[word] == phonemes for word, phonemes in zip(words, alone, strict=True))
    print(f"{same} of {len(words)} words as in one process")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
