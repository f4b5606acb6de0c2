"""Write tests/golden/keras_files.tar.xz: files that Keras 3 and Keras 2 (tf-keras) saved, and their answers.

Run with keras, tf-keras and tensorflow installed: python tests/oracle/make_keras_files.py
"""

import io
import os
import sys
import tarfile
import tempfile
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["KERAS_BACKEND"] = "tensorflow"
TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS))

import keras  # noqa: E402
import keras_file_cases as cases  # noqa: E402
import numpy as np  # noqa: E402
import tf_keras  # noqa: E402


def cudnn_answers(name, mask, directory):
    """The answers of the same model without CuDNN, into which Keras 2 itself converts the weights."""
    descriptions = cases.ALL[name]
    plain = eval(repr(descriptions).replace("CuDNN", ""))
    cases.CASES[name] = cases.ALL[name] = plain
    try:
        twin = cases.build(tf_keras, name)
    finally:
        cases.ALL[name] = descriptions
        del cases.CASES[name]
    twin.load_weights(directory / "model.h5")
    return cases.answers(twin, name, mask)


def main():
    with tarfile.open(cases.FILE, "w:xz", preset=9) as archive:

        def add(name, data):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))

        for version, module in (("keras3", keras), ("keras2", tf_keras)):
            arrays = {}
            for name in cases.ALL:
                if name in cases.CUDNN and version == "keras3":
                    continue
                model = cases.build(module, name)
                with tempfile.TemporaryDirectory() as folder:
                    directory = Path(folder)
                    if name in cases.CUDNN:
                        model.save(directory / "model.h5")
                        files = {".h5": (directory / "model.h5").read_bytes(), ".json": model.to_json().encode()}
                    else:
                        files = cases.saved(model, directory)
                    for mask in cases.MASKS:
                        if name in cases.CUDNN:
                            answers = cudnn_answers(name, mask, directory)
                        else:
                            answers = cases.answers(model, name, mask)
                        for i, array in enumerate(answers):
                            arrays[f"{name}/{mask}/{i}"] = array
                for ending, data in files.items():
                    add(f"{version}/{name}{ending}", data)
            buffer = io.BytesIO()
            np.savez(buffer, **arrays)
            add(f"{version}.npz", buffer.getvalue())
    print(cases.FILE.stat().st_size)


if __name__ == "__main__":
    main()
