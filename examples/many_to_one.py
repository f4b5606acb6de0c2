"""Many to one: noisy waves of unequal length, classified by the state after the last step of each."""

import numpy as np
from reservoir import least_squares, random_cell

from fastrnn import nn

NAMES = ["sine", "square", "sawtooth"]
rng = np.random.default_rng(0)


def make_waves(count, longest=60):
    """Waves (B, T, 1) of any pitch and phase, their lengths of at least 20, and their kinds."""
    kinds, lengths = rng.integers(3, size=count), rng.integers(20, longest + 1, count)
    turns = rng.uniform(0.08, 0.12, (count, 1)) * np.arange(longest) + rng.uniform(size=(count, 1))
    waves = [np.sin(2 * np.pi * turns), np.sign(np.sin(2 * np.pi * turns)), 2 * (turns % 1) - 1]
    x = np.choose(kinds[:, None], waves) + 0.3 * rng.standard_normal((count, longest))
    return x[:, :, None].astype("f4"), lengths, kinds


cell = random_cell(200, 1, rng, radius=0.8)
x, lengths, kinds = make_waves(1000)
_, state = nn.dynamic_rnn(cell, x, sequence_length=lengths)
readout = least_squares(state, np.eye(3)[kinds])

x, lengths, kinds = make_waves(500)
_, state = nn.dynamic_rnn(cell, x, sequence_length=lengths)
found = (state @ readout).argmax(axis=1)

for row in range(6):
    levels = np.clip(5 + 2.5 * x[row, : lengths[row], 0], 0, 9).astype(int)  # 5 is zero
    print("".join(map(str, levels)))
    print(f"  {lengths[row]} steps of a {NAMES[kinds[row]]:8}  ->  {NAMES[found[row]]}")
print(f"{(found == kinds).mean():.1%} of {len(kinds)} new waves are right (guessing: 33%)")
