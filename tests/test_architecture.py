"""The arrows of the house: what may include, import and export what."""

import ast
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from fastrnn import _core

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "fastrnn"
CORE = PACKAGE / "core"
STANDARD_C = {
    "limits.h",
    "math.h",
    "stdatomic.h",
    "stdbool.h",
    "stddef.h",
    "stdint.h",
    "stdlib.h",
    "string.h",
    "time.h",
}
POSIX_THREADS = {"pthread.h", "sched.h", "signal.h"}  # for threads.c alone
INTRINSICS = {"arm_neon.h", "immintrin.h"}

C_FILES = sorted(path for path in CORE.rglob("*") if path.suffix in (".c", ".h"))
KERNEL_FILES = [path for path in C_FILES if path.parent.name == "kernels"]
PYTHON_FILES = sorted(PACKAGE.rglob("*.py"))

#: What a core file may include beside the standard library; a .c file also its own header.
ARROWS = {
    "common": {"fastrnn"},
    "clock": set(),
    "cpu": {"common"},
    "threads": {"common", "clock"},
    "dispatch": {"kernels/kernels", "cpu"},
    "matrix": {"kernels/kernels"},
    "hash": {"common"},
    "cell": {"hash", "matrix", "threads"},
    "sequence": {"cell", "clock", "cpu"},
    "packed": {"sequence"},
    "unrolled": {"sequence"},
    "layer": {"cell", "dispatch"},
    "plan": {"layer", "sequence"},
    "workspace": {"plan"},
    "stream": {"layer", "sequence"},
    "snapshot": {"stream"},
    "run": {"cpu", "packed", "stream", "threads", "unrolled", "workspace"},
}


def includes(path):
    return set(re.findall(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', path.read_text(), re.MULTILINE))


def imports(path):
    """Full names of the modules that a Python file imports, `from . import x` as fastrnn.x."""
    package = ("fastrnn", *path.relative_to(PACKAGE).parts[:-1])
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            names |= {f"{module}.{alias.name}" for alias in node.names} if not node.module else {module}
    return names


def own_imports(path):
    return {name for name in imports(path) if name.split(".")[0] == "fastrnn"}


def ids(paths):
    return [str(path.relative_to(ROOT)) for path in paths]


def test_there_is_something_to_look_at():
    assert len(C_FILES) > 15 and KERNEL_FILES and len(PYTHON_FILES) > 8
    assert "fastrnn._core" in imports(PACKAGE / "layers.py") and "fastrnn.spec" in imports(PACKAGE / "layers.py")


@pytest.mark.parametrize("path", C_FILES, ids=ids(C_FILES))
def test_core_knows_neither_python_nor_blas(path):
    for name in includes(path):
        assert not re.search(r"python|numpy|blas|lapack|mkl|omp", name, re.IGNORECASE), name
    assert not re.search(r"\bPy[A-Z]\w+|\b(printf|fprintf|abort|exit)\s*\(", path.read_text())


@pytest.mark.parametrize("path", KERNEL_FILES, ids=ids(KERNEL_FILES))
def test_kernels_include_kernels_only(path):
    local = {other.name for other in KERNEL_FILES} | {"../common.h", "fastrnn.h"}
    assert includes(path) <= local | STANDARD_C | INTRINSICS


@pytest.mark.parametrize("path", [path for path in C_FILES if path.parent == CORE], ids=lambda path: path.name)
def test_core_includes_downwards_only(path):
    allowed = {f"{name}.h" for name in ARROWS[path.stem]} | ({f"{path.stem}.h"} if path.suffix == ".c" else set())
    allowed |= {"cpu": INTRINSICS, "threads": POSIX_THREADS}.get(path.stem, set())
    assert includes(path) - STANDARD_C <= allowed


def test_public_header_stands_alone():
    assert includes(ROOT / "include" / "fastrnn.h") <= STANDARD_C


@pytest.mark.parametrize("name", ["arguments", "spec", "functions", "schedule", "masks", "reference"])
def test_plain_modules(name):
    """Each imports NumPy and, of the package, what `own` says."""
    third_party = {module for module in imports(PACKAGE / f"{name}.py") if module.split(".")[0] in ("numpy", "fastrnn")}
    others = imports(PACKAGE / f"{name}.py") - third_party
    assert others <= {"__future__", "collections.abc", "dataclasses", "operator", "typing"}
    own = {
        "functions": {"fastrnn.spec"},
        "spec": {"fastrnn.arguments"},
        "schedule": {"fastrnn.arguments"},
        "masks": {"fastrnn.arguments", "fastrnn.schedule"},
        "reference": {"fastrnn.spec"},
    }
    assert own_imports(PACKAGE / f"{name}.py") <= own.get(name, set())


def test_importers_know_the_spec_and_functions_alone():
    paths = sorted((PACKAGE / "importers").glob("*.py"))
    assert paths
    for path in paths:
        assert own_imports(path) <= {
            "fastrnn.functions",
            "fastrnn.spec",
            "fastrnn.importers.pytorch",
            "fastrnn.importers.keras",
            "fastrnn.importers.pytorch_module",
        }, path.name
        assert not {name.split(".")[0] for name in imports(path)} & {"keras", "torch", "tensorflow", "onnx"}, path.name


def test_files_stand_on_importers_and_end_in_a_spec():
    for path in sorted((PACKAGE / "files").glob("*.py")):
        used = {name for name in own_imports(path) if not name.startswith("fastrnn.files")}
        below = {"fastrnn.extras", "fastrnn.spec"} | {name for name in used if name.startswith("fastrnn.importers.")}
        below |= {"load": {"fastrnn.layers"}, "keras_file": {"fastrnn.keras", "fastrnn.keras.recurrent"}}.get(
            path.stem, set()
        )
        assert used <= below, path.name


def test_tensorflows_face_stands_on_the_layers():
    for path in set(PYTHON_FILES) - {PACKAGE / "__init__.py"}:
        used = {name for name in own_imports(path) if path.parent.name == "nn" or name.startswith("fastrnn.nn")}
        if path.parent.name == "nn":
            below = {"arguments", "functions", "importers.tensorflow", "layers", "schedule", "spec"}
            used = {name for name in used if not name.startswith("fastrnn.nn")} - {f"fastrnn.{name}" for name in below}
        assert not used, path.name


@pytest.mark.parametrize("path", PYTHON_FILES, ids=ids(PYTHON_FILES))
def test_package_needs_no_oracle_tests_or_benchmarks(path):
    for name in imports(path):
        assert not re.match(r"fastrnn\.reference\b|tests?\b|bench\b|pytest\b|hypothesis\b", name), name


def test_core_is_called_by_the_engine_modules_only():
    callers = {path.stem for path in PYTHON_FILES if "fastrnn._core" in imports(path)}
    assert callers <= {"__init__", "layers", "streams", "runtime", "thread_limits", "probe"}


@pytest.mark.parametrize("path", C_FILES, ids=ids(C_FILES))
def test_external_functions_have_the_prefix(path):
    """Definitions at the left margin without `static` are fr_ or fastrnn_."""
    text = re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.DOTALL)
    for line in re.findall(r"^(?!static|typedef|FR_INLINE)[A-Za-z][\w \*]*?\b\w+\(", text, re.MULTILINE):
        name = re.search(r"(\w+)\($", line)[1]
        assert re.match(r"(?:fr|fastrnn)_|FR_", name), line


def symbols(path):
    """Names that a compiled file defines for others."""
    if not shutil.which("nm"):
        pytest.skip("nm is not installed")
    flags = ["-D"] if path.suffix == ".so" else []
    text = subprocess.run(["nm", "-g", "--defined-only", *flags, str(path)], capture_output=True, text=True, check=True)
    return {line.split()[-1] for line in text.stdout.splitlines() if len(line.split()) == 3}


def test_the_module_exports_the_public_api_alone():
    exported = symbols(Path(_core.__file__)) - {"_init", "_fini"}
    assert "PyInit__core" in exported
    assert {name for name in exported - {"PyInit__core"} if not name.startswith("fastrnn_")} == set()


def test_external_symbols_of_the_objects_have_the_prefix():
    objects = sorted((ROOT / "build").glob("temp*/fastrnn/core/**/*.o"))
    if not objects:
        pytest.skip("not built in this checkout")
    for path in objects:
        prefix = ("fr_",) if path.parent.name == "kernels" else ("fr_", "fastrnn_")
        assert all(name.startswith(prefix) for name in symbols(path)), path.name


def test_flags_keep_arithmetic_exact_and_builds_portable():
    setup = (ROOT / "setup.py").read_text()
    assert not re.search(r"-ffast-math|-Ofast|-march=native|-mtune=native|-funsafe|-fopenmp", setup)
    assert "-ffp-contract=off" in setup and "-fvisibility=hidden" in setup


def test_run_time_needs_numpy_and_scipy_alone():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert sorted(re.match(r"[\w-]+", need)[0] for need in project["dependencies"]) == ["numpy", "scipy"]
