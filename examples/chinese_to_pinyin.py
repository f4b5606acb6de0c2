"""Chinese characters to pinyin: g2pM's bidirectional LSTM, sentences of any lengths in one batch.

    pip install g2pM==0.1.2.5
    python examples/chinese_to_pinyin.py [SENTENCE ...]

The package's own file is a pickle, which fastrnn does not read; the package reads it, and the arrays go through an npz.
"""

import sys
import tempfile

import numpy as np
from g2pM import G2pM
from g2pM.g2pM import BOS_TOKEN, EOS_TOKEN, UNK_TOKEN

import fastrnn

PARTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
SENTENCES = ["银行行长在行走", "然而，他红了20年以后，他竟退出了大家的视线。", "行"]  # noqa: RUF001
model = G2pM()
arrays = {f"lstm.{part}_l0{end}": getattr(model, f"{part}{end}") for part in PARTS for end in ("", "_reverse")}
with tempfile.TemporaryDirectory() as folder:
    np.savez(f"{folder}/g2pm.npz", **arrays)
    layer = fastrnn.load(f"{folder}/g2pm.npz", prefix="lstm")

sentences = sys.argv[1:] or SENTENCES
unknown = model.char2idx[UNK_TOKEN]
ids = [[model.char2idx.get(character, unknown) for character in (BOS_TOKEN, *text, EOS_TOKEN)] for text in sentences]
outputs, _ = layer([model.embeddings[row] for row in ids])
for text, y in zip(sentences, outputs, strict=True):
    classes = model.fc_layer(y[1:-1]).argmax(axis=1)
    pinyin = []
    for character, best in zip(text, classes, strict=True):
        known = model.cedict.get(character, [character])
        pinyin.append(model.idx2class[best] if len(known) > 1 else known[0])
    same = pinyin == model(text, char_split=True)
    print(f"{' '.join(pinyin)}   ({'as' if same else 'unlike'} g2pM's own)")
