"""One to many: captions for small pictures, generated word by word from a state that the picture gives."""

import numpy as np
from reservoir import least_squares, random_cell

from fastrnn import nn

SIZE = 9
SHAPES = ["square", "cross", "line"]
WORDS = ["<end>", "a", "and", "big", "small", *SHAPES]
START = END = 0
rng = np.random.default_rng(0)
one_hot = np.eye(len(WORDS), dtype="f4")


def draw_picture():
    """A picture (9, 9) of one or two shapes, side by side, and its caption."""
    picture, parts = np.zeros((SIZE, SIZE), "f4"), []
    for left in (0, 5)[: rng.integers(1, 3)]:
        shape, n = rng.integers(3), rng.integers(3, 5)
        top = rng.integers(SIZE - n + 1)
        box = picture[top : top + n, left : left + n]
        if shape == 0:
            box[[0, -1], :] = box[:, [0, -1]] = 1
        elif shape == 1:
            box[range(n), range(n)] = box[range(n), range(n)[::-1]] = 1
        else:
            box[n // 2, :] = 1
        parts.append(f"a {'small' if n == 3 else 'big'} {SHAPES[shape]}")
    return picture, " and ".join(parts)


def describe(pictures):
    """Features (B, F) of pictures (B, 9, 9): the dots, and which neighbouring dots are both set."""
    p = np.asarray(pictures)
    pairs = [
        p[:, 1:] * p[:, :-1],
        p[:, :, 1:] * p[:, :, :-1],
        p[:, 1:, 1:] * p[:, :-1, :-1],
        p[:, 1:, :-1] * p[:, :-1, 1:],
    ]
    return np.concatenate([part.reshape(len(p), -1) for part in (p, *pairs)], axis=1)


def start_states(pictures):
    return np.tanh(describe(pictures) @ project)


pictures, captions = zip(*[draw_picture() for _ in range(1500)], strict=True)
cell = random_cell(800, len(WORDS), rng)
project = rng.standard_normal((describe(pictures).shape[1], 800)).astype("f4") / 20

# Learn each next word from the state after the words before it.
sentences = [[START, *(WORDS.index(word) for word in caption.split()), END] for caption in captions]
lengths = np.array([len(sentence) - 1 for sentence in sentences])
codes = np.array([sentence + [END] * (max(lengths) + 1 - len(sentence)) for sentence in sentences])
states, _ = nn.dynamic_rnn(cell, one_hot[codes[:, :-1]], lengths, start_states(pictures))
valid = np.arange(max(lengths)) < lengths[:, None]
readout = least_squares(states[valid], one_hot[codes[:, 1:]][valid], penalty=1e-2)


def step(tokens, state):
    output, state = cell(one_hot[tokens], state)
    return output @ readout, state


seen = {picture.tobytes() for picture in pictures}
drawn = [draw_picture() for _ in range(1000)]
pictures, captions = zip(*[pair for pair in drawn if pair[0].tobytes() not in seen], strict=True)
found = nn.decode(step, [START] * len(pictures), start_states(pictures), end=END, max_steps=12)
rows = zip(found.tokens, found.lengths, strict=True)
said = [" ".join(WORDS[token] for token in tokens[:length]) for tokens, length in rows]

for picture, caption in list(zip(pictures, said, strict=True))[:3]:
    print("\n".join("".join(".#"[int(dot)] for dot in row) for row in picture), caption, "", sep="\n")
print(f"{np.mean([a == b for a, b in zip(said, captions, strict=True)]):.1%} of {len(said)} new captions are right")
