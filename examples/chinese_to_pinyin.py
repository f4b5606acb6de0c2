"""Chinese characters to pinyin: g2pM's whole network as one model, sentences of any lengths in one call.

    pip install g2pM==0.1.2.5
    python examples/chinese_to_pinyin.py [SENTENCE ...]

An embedding, an LSTM in both directions, and two linear layers with relu between them. The package computes it in
NumPy, sentence by sentence; it reads its file, a pickle, which fastrnn does not read.
"""

import sys

import numpy as np
from g2pM import G2pM
from g2pM.g2pM import BOS_TOKEN, EOS_TOKEN, UNK_TOKEN

import fastrnn

PARTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
SENTENCES = ["银行行长在行走", "然而，他红了20年以后，他竟退出了大家的视线。", "行"]  # noqa: RUF001
package = G2pM()
arrays = {f"{part}_l0{end}": getattr(package, f"{part}{end}") for part in PARTS for end in ("", "_reverse")}
model = fastrnn.Sequential(
    fastrnn.Embedding(package.embeddings),
    fastrnn.LSTM.from_state_dict(arrays),
    fastrnn.Linear(package.hidden_weight_l0, package.hidden_bias_l0),
    "relu",
    fastrnn.Linear(package.hidden_weight_l1, package.hidden_bias_l1),
)

sentences = sys.argv[1:] or SENTENCES
unknown = package.char2idx[UNK_TOKEN]
ids = [[package.char2idx.get(character, unknown) for character in (BOS_TOKEN, *text, EOS_TOKEN)] for text in sentences]
unlike = 0
for text, row, logits in zip(sentences, ids, model(ids), strict=True):
    classes = logits.argmax(axis=1)
    unlike += np.count_nonzero(classes != package.predict(np.array([row]), np.arange(len(row))))
    pinyin = []
    for character, best in zip(text, classes[1:-1], strict=True):
        known = package.cedict.get(character, [character])
        pinyin.append(package.idx2class[best] if len(known) > 1 else known[0])
    same = pinyin == package(text, char_split=True)
    print(f"{' '.join(pinyin)}   ({'as' if same else 'unlike'} g2pM's own)")
print(f"the network's answers to {sum(map(len, ids))} characters, of which {unlike} are unlike g2pM's own")
