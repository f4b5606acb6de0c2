"""Settings of the process, and what an import loads."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from cases import LAYERS, random_spec

import fastrnn
from fastrnn import _core

WEIGHTS = "{'weight_ih_l0': np.eye(3, dtype='f4'), 'weight_hh_l0': np.eye(3, dtype='f4')}"
HEAVY = ("scipy", "torch", "tensorflow", "onnx", "onnxruntime", "matplotlib", "tqdm", "hypothesis")


def run_python(code, **environment):
    """Run code in a fresh interpreter; return the completed process."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("FASTRNN_")}
    command = [sys.executable, "-c", "import json, sys, numpy as np\n" + code]
    return subprocess.run(command, env={**clean, **environment}, capture_output=True, text=True, timeout=60)


def answer(code, **environment):
    """The last line that the code prints, read as JSON."""
    result = run_python(code, **environment)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.fixture
def threads():
    before = fastrnn.get_num_threads()
    yield
    fastrnn.set_num_threads(before)


@pytest.mark.parametrize("n", [1, 2, 64, np.int32(3), np.uint8(4)])
def test_threads(threads, n):
    fastrnn.set_num_threads(n)
    assert fastrnn.get_num_threads() == n == fastrnn.info()["threads"]


@pytest.mark.parametrize("bad", [0, -1, -(2**70), 1.0, "2", None, True, [1]])
def test_bad_threads_change_nothing(threads, bad):
    fastrnn.set_num_threads(3)
    with pytest.raises((TypeError, ValueError), match="n is"):
        fastrnn.set_num_threads(bad)
    assert fastrnn.get_num_threads() == 3


def test_info():
    info = fastrnn.info()
    isas = {"isa", "isa_detected", "isas", "int8_isa", "int8_isas"}
    assert set(info) == isas | {"version", "threads", "blas", "python", "numpy", "scipy"}
    assert info["version"] == fastrnn.__version__ == _core.__version__
    assert info["isas"] == _core.available_isas() and info["isas"][-1] == "scalar"
    assert info["isa"] in info["isas"] and info["isa_detected"] == info["isas"][0]
    assert info["int8_isas"] == _core.available_isas("int8") and set(info["isas"]) <= set(info["int8_isas"])
    assert info["int8_isa"] in info["int8_isas"] and _core.isa_for(info["int8_isa"], "float32") == info["isa"]
    assert info["numpy"] == np.__version__
    json.dumps(info)


def test_isa_by_argument(rng, isa):
    layer = fastrnn.LSTM(random_spec(rng, "lstm", 3, 5), backend="fused", isa=isa)
    assert layer.isa == isa


@pytest.mark.parametrize("bad", ["", "AVX2", "sse9", 3, b"scalar"])
def test_bad_isa_by_argument(rng, bad):
    with pytest.raises((TypeError, ValueError), match="isa is"):
        fastrnn.LSTM(random_spec(rng, "lstm", 3, 5), isa=bad)


def test_isa_by_environment(isa):
    layer = f"fastrnn.RNN.from_state_dict({WEIGHTS}, nonlinearity='tanh')"
    code = f"import fastrnn; print(json.dumps([fastrnn.info()['isa'], {layer}.isa]))"
    assert answer(code, FASTRNN_ISA=isa) == [isa, isa]


def test_argument_goes_before_environment():
    best = _core.available_isas()[0]
    code = (
        "import fastrnn; from fastrnn.importers.pytorch import spec_from_state_dict as spec\n"
        f"layer = fastrnn.RNN(spec('rnn', {WEIGHTS}, nonlinearity='tanh'), backend='fused', isa={best!r})\n"
        "print(json.dumps(layer.isa))"
    )
    assert answer(code, FASTRNN_ISA="scalar") == best


def test_empty_environment_chooses():
    code = "import fastrnn; print(json.dumps(fastrnn.info()['isa']))"
    assert answer(code, FASTRNN_ISA="") == _core.available_isas()[0]


def test_bad_isa_by_environment():
    """The import works; the error where the setting is used names it, its value and the choices."""
    for call in ("fastrnn.info()", f"fastrnn.RNN.from_state_dict({WEIGHTS}, nonlinearity='tanh')"):
        result = run_python(f"import fastrnn; {call}", FASTRNN_ISA="sse9")
        assert result.returncode == 1
        last = result.stderr.strip().splitlines()[-1]
        assert last.startswith("ValueError: FASTRNN_ISA is 'sse9'") and "scalar" in last


def test_import_is_light():
    code = f"import fastrnn; print(json.dumps([name for name in {HEAVY} if name in sys.modules]))"
    assert answer(code) == []


def test_scipy_is_imported_only_when_blas_is_asked_for():
    code = f"""
import fastrnn
weights = {WEIGHTS}
fused = fastrnn.RNN.from_state_dict(weights, nonlinearity='tanh', backend='fused')
x = np.ones((2, 3, 3), np.float32)
y, _ = fused(x)
fused.stream().step(x[:1, 0])
before = 'scipy' in sys.modules
blas = fastrnn.RNN.from_state_dict(weights, nonlinearity='tanh', backend='blas')
after = 'scipy' in sys.modules
print(json.dumps([before, after, bool(np.allclose(y, blas(x)[0], atol=1e-6))]))
"""
    assert answer(code) == [False, True, True]


@pytest.mark.parametrize("kind", LAYERS)
def test_backends(rng, kind):
    spec = random_spec(rng, kind, 3, 5)
    make = LAYERS[kind]
    assert make(spec, backend="fused").backend == "fused"
    assert make(spec, backend="blas").backend == "blas" and make(spec, backend="blas").isa is None
    wide = make(spec, dtype=np.float64)
    assert wide.backend == "blas" and wide.dtype == np.float64
    with pytest.raises(ValueError, match="backend is 'fused' and dtype float64"):
        make(spec, backend="fused", dtype=np.float64)
    with pytest.raises(ValueError, match="backend is 'gpu'"):
        make(spec, backend="gpu")
    with pytest.raises(TypeError, match="dtype is float16"):
        make(spec, dtype=np.float16)
