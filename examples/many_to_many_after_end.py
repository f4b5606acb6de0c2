"""Many to many, after the end: words to phonemes with the trained GRUs of g2p-en (pip install '.[demo]').

The encoder reads all letters; then the decoder starts from the encoder's last state and runs until each word is
finished. The model resets after the matmul like PyTorch's, so it runs as fastrnn.GRU; nn.decode is the loop.
"""

import sys

import numpy as np

import fastrnn
from fastrnn import demo, nn

arrays = np.load(demo.package_file("g2p_en", "checkpoint20.npz"))
names = {"weight_ih_l0": "w_ih", "weight_hh_l0": "w_hh", "bias_ih_l0": "b_ih", "bias_hh_l0": "b_hh"}
encoder, decoder = (
    fastrnn.GRU.from_state_dict({ours: arrays[f"{part}_{theirs}"] for ours, theirs in names.items()})
    for part in ("enc", "dec")
)
letters, phonemes, output, bias = (arrays[name] for name in ("enc_emb", "dec_emb", "fc_w", "fc_b"))


def step(tokens, h):
    _, h = decoder(phonemes[tokens][:, None], h[None])
    return h[0] @ output.T + bias, h[0]


words = sys.argv[1:] or ["hello", "sequence", "colonel", "a", "activationist"]
codes = [[demo.FIRST_LETTER + ord(letter) - ord("a") for letter in word] + [demo.LETTERS_END] for word in words]
_, state = encoder([letters[code] for code in codes])
found = nn.decode(step, [demo.START] * len(words), state[0], end=demo.END, max_steps=demo.MAX_PHONEMES)
for word, tokens, length in zip(words, found.tokens, found.lengths, strict=True):
    print(f"{word:14} {' '.join(demo.PHONEMES[token] for token in tokens[:length])}")
print(f"{found.lengths.sum() + len(words)} steps of the decoder, where a padded batch takes {found.tokens.size}")
