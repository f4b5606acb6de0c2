"""Many to many, in step: a character model reads the licence's text and predicts the next letter after each one."""

from pathlib import Path

import numpy as np
from reservoir import least_squares, random_cell

from fastrnn import nn

rng = np.random.default_rng(0)
text = " ".join((Path(__file__).parents[1] / "LICENSE").read_text().lower().split())
letters = sorted(set(text))
codes = np.array([letters.index(letter) for letter in text])
one_hot = np.eye(len(letters), dtype="f4")
split = len(codes) * 9 // 10  # learn from the first nine tenths

cell = random_cell(600, len(letters), rng, radius=0.7)
states, _ = nn.dynamic_rnn(cell, one_hot[codes[:-1]][None])  # one row of many steps: (1, T, letters)
readout = least_squares(states[0, : split - 1], one_hot[codes[1:split]], penalty=0.1)
expected = (states[0] @ readout).argmax(axis=1)

pairs = np.zeros((len(letters), len(letters)))
np.add.at(pairs, (codes[: split - 1], codes[1:split]), 1)
print(f"{len(text):,} characters, {len(letters)} different ones")
print(f"next letter right on the unread tenth: {(expected == codes[1:])[split:].mean():.0%}", end=" ")
print(
    f"(most frequent letter after the one before: {(pairs.argmax(axis=1)[codes[:-1]] == codes[1:])[split:].mean():.0%})"
)


def step(tokens, state):
    output, state = cell(one_hot[tokens], state)
    return np.log(np.maximum(output @ readout, 1e-3)), state


start = "licensed under the "
_, state = nn.dynamic_rnn(cell, one_hot[[letters.index(letter) for letter in start[:-1]]][None])
last, stop = letters.index(start[-1]), letters.index(".")
rows = 3  # three continuations of one beginning, each ending with a full stop
found = nn.decode(step, [last] * rows, np.repeat(state, rows, axis=0), end=stop, max_steps=60, rng=rng, temperature=0.5)
for tokens, length in zip(found.tokens, found.lengths, strict=True):
    print(start + "|" + "".join(letters[token] for token in tokens[:length]))
