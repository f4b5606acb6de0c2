"""Write tests/golden/tensorflow.npz: TensorFlow's answers to every case of tensorflow_cases.py.

    python tests/oracle/make_tensorflow_golden.py

Needs the extra `oracle`. The drivers of a group have to agree, so each case is stored once.
"""

import sys
from pathlib import Path

import numpy as np

TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS))

from live_tensorflow import TENSORFLOW  # noqa: E402
from tensorflow_cases import GROUPS  # noqa: E402


def main() -> None:
    golden: dict[str, np.ndarray] = {}
    for run, cases, drivers in GROUPS:
        for case in cases:
            found = [run(case, driver, TENSORFLOW) for driver in drivers]
            for other in found[1:]:
                assert other.keys() == found[0].keys()
                for path, array in other.items():
                    np.testing.assert_allclose(array, found[0][path], rtol=0, atol=1e-6, err_msg=f"{case.name} {path}")
            golden |= {f"{case.name} {path}": array for path, array in found[0].items()}
    target = TESTS / "golden" / "tensorflow.npz"
    np.savez_compressed(target, **golden)
    print(f"{target.name}: {len(golden)} arrays, {target.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
