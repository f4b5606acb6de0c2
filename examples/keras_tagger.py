"""Many to many in step: a tagger that Keras trained, on sentences of any lengths, by fastrnn.

    python examples/keras_tagger.py                # the stored model, without Keras
    python examples/keras_tagger.py --train FOLDER # trains it again with Keras and TensorFlow, and writes it there

An Embedding with mask_zero, a Bidirectional LSTM and a Dense layer give each word its part of speech. Many words have
several: "light" and "open" are adjectives, nouns or verbs, and what follows tells which. Keras takes sentences padded
with zeros to one length; fastrnn takes them as they are and computes real words alone.
"""

import argparse
import random
from pathlib import Path

import numpy as np

import fastrnn

LEXICON = {
    "DET": "the a this that every",
    "PRON": "they we you that",
    "ADJ": "light open clean dry old quick calm",
    "NOUN": "duck light watch fly plant dry bear calm open saw",
    "VERB": "duck light watch fly plant dry bear calm open clean saw",
    "ADP": "near by on before",
    "ADV": "before quick near",
    "END": ". !",
}
TAGS = ["", *LEXICON]  # of 0, the padding, and of each kind of word
WORDS = ["", *sorted({word for words in LEXICON.values() for word in words.split()})]
LONGEST = 24


def draw_sentence(rng):
    """A random sentence: pairs of word and tag."""

    def word(tag):
        return [(rng.choice(LEXICON[tag].split()), tag)]

    def noun_phrase(depth):
        if rng.random() < 0.3:
            return word("PRON")
        adjectives = [pair for _ in range(rng.choice([0, 0, 1, 1, 2])) for pair in word("ADJ")]
        phrase = word("DET") + adjectives + word("NOUN")
        return phrase + place(depth + 1) if depth < 2 and rng.random() < 0.3 else phrase

    def place(depth):
        return word("ADP") + noun_phrase(depth)

    while True:
        sentence = noun_phrase(0) + word("VERB")
        sentence += noun_phrase(0) if rng.random() < 0.6 else []
        sentence += place(0) if rng.random() < 0.3 else []
        sentence += word("ADV") if rng.random() < 0.3 else []
        sentence += word("END")
        if len(sentence) <= LONGEST:
            return sentence


def draw(seed, count):
    """Sentences as lists of ids, and the tags of each as a list of ids."""
    rng = random.Random(seed)
    sentences = [draw_sentence(rng) for _ in range(count)]
    words = [[WORDS.index(word) for word, _ in sentence] for sentence in sentences]
    return words, [[TAGS.index(tag) for _, tag in sentence] for sentence in sentences]


def padded(rows):
    """(B, LONGEST) with zeros past a row's end."""
    return np.array([row + [0] * (LONGEST - len(row)) for row in rows])


def train(folder, test):
    """Train the tagger in Keras; write it, and its answers to the sentences of `test`."""
    import keras

    def build():
        layers = keras.layers
        return keras.Sequential(
            [
                keras.Input((None,), dtype="int32"),
                layers.Embedding(len(WORDS), 12, mask_zero=True),
                layers.Bidirectional(layers.LSTM(12, return_sequences=True)),
                layers.Dense(len(TAGS), activation="softmax"),
            ]
        )

    keras.utils.set_random_seed(0)
    trained, tagger = build(), build()
    trained.compile(keras.optimizers.Adam(0.03), "sparse_categorical_crossentropy")
    words, tags = draw(1, 2000)
    trained.fit(padded(words), padded(tags), batch_size=50, epochs=3, verbose=0)
    tagger.set_weights(trained.get_weights())  # a file without the optimizer's state
    tagger.save(folder / "keras_tagger.keras")
    answers = tagger.predict(padded(test), verbose=0)
    np.savez_compressed(folder / "keras_tagger.npz", answers=packed(answers, test))


def packed(rows, sentences):
    """The answers to real words, one after the other."""
    return np.concatenate([row[: len(sentence)] for row, sentence in zip(rows, sentences, strict=True)])


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--train", type=Path, metavar="FOLDER", help="train the model with Keras, and write it there")
arguments = parser.parse_args()
folder = arguments.train or Path(__file__).parent
words, tags = draw(2, 40)
if arguments.train:
    train(folder, words)

model = fastrnn.load(folder / "keras_tagger.keras")
answers = model(words)  # a list of (words, tags)
for row, y in list(zip(words, answers, strict=True))[:6]:
    print(" ".join(f"{WORDS[word]}/{TAGS[tag]}" for word, tag in zip(row, y.argmax(axis=1), strict=True)))

answers, wanted = packed(answers, words), np.concatenate(tags)
print(f"{len(wanted)} words, {np.mean(answers.argmax(axis=1) == wanted):.1%} with the right tag")
print(f"{len(wanted)} steps, of the {len(words) * LONGEST} that Keras computes with padding")
with np.load(folder / "keras_tagger.npz") as stored:
    print(f"Keras's probabilities differ by {abs(answers - stored['answers']).max():.1g}")
