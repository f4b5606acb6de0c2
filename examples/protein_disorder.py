"""Which parts of a protein have no fixed structure? metapredict's own code, with its LSTM on fastrnn.

    pip install metapredict==3.1.1
    python examples/protein_disorder.py [SEQUENCE ...]

metapredict packs the sequences, runs a bidirectional LSTM of PyTorch on them, and a linear layer. One call of
accelerate replaces the LSTM in the model that the package keeps; nothing else changes. Each # is a residue that is
disordered with a score above 0.5. Without arguments, the sequences are two human proteins, p53 and ubiquitin.
"""

import sys

from metapredict.backend import predictor

import fastrnn.torch

SEQUENCES = [
    "MEEPQSDPSVEPPLSQETFSDLWKLLPENNVLSPLPSQAMDDLMLSPDDIEQWFTEDPGPDEAPRMPEAAPPVAPAPAAPTPAAPAPAPSWPLSSSVPSQ"
    "KTYQGSYGFRLGFLHSGTAKSVTCTYSPALNKMFCQLAKTCPVQLWVDSTPPPGTRVRAMAIYKQSQHMTEVVRRCPHHERCSDSDGLAPPQHLIRVEGN"
    "LRVEYLDDRNTFRHSVVVPYEPPEVGSDCTTIHYNYMCNSSCMGGMNRRPILTIITLEDSSGNLLGRNSFEVRVCACPGRDRRTEEENLRKKGEPHHELP"
    "PGSTKRALPNNTSSSPQPKKKPLDGEYFTLQIRGRERFEMFRELNEALELKDAQAGKEPGGSRAHSSHLKSKKGQSTSRHKKLMFKTEGPDSD",
    "MQIFVKTLTGKTITLEVEPSDTIENVKAKIQDKEGIPPDQQRLIFAGKQLEDGRTLSDYNIQKESTLHLVLRLRGG",
]
sequences = sys.argv[1:] or SEQUENCES


def scores():
    found = predictor.predict(sequences, use_device="cpu", round_values=False)
    return {sequence: score for sequence, score in found}


plain = scores()
for model in predictor.loaded_models.values():
    fastrnn.torch.accelerate(model, inplace=True)
fast = scores()

for sequence in sequences:
    print(f"{len(sequence)} residues, {(fast[sequence] > 0.5).mean():.0%} disordered")
    for start in range(0, len(sequence), 80):
        part = slice(start, start + 80)
        print(f"  {sequence[part]}\n  {''.join('#' if score > 0.5 else '.' for score in fast[sequence][part])}")
difference = max(abs(fast[sequence] - plain[sequence]).max() for sequence in sequences)
print(f"with PyTorch's LSTM and with fastrnn's the scores differ by {difference:.1g}")
