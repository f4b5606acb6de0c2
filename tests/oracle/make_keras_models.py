"""Write tests/golden/keras_models.tar.xz: whole models that Keras 3 and Keras 2 (tf-keras) saved, and their answers.

Run with keras, tf-keras and tensorflow installed: python tests/oracle/make_keras_models.py
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
import keras_file_cases  # noqa: E402
import keras_model_cases as cases  # noqa: E402
import numpy as np  # noqa: E402
import tf_keras  # noqa: E402


def main():
    with tarfile.open(cases.FILE, "w:xz", preset=9) as archive:

        def add(name, data):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))

        for version, module in (("keras3", keras), ("keras2", tf_keras)):
            arrays = {}
            for name in cases.ALL:
                model = cases.build(module, name)
                with tempfile.TemporaryDirectory() as folder:
                    files = keras_file_cases.saved(model, Path(folder))
                arrays |= {f"{name}/{row}": array for row, array in enumerate(cases.answers(model, name))}
                for ending, data in files.items():
                    if ending == ".keras" or name in cases.IN_EVERY_FORMAT:
                        add(f"{version}/{name}{ending}", data)
            buffer = io.BytesIO()
            np.savez(buffer, **arrays)
            add(f"{version}.npz", buffer.getvalue())
    print(cases.FILE.stat().st_size)


if __name__ == "__main__":
    main()
