"""The dependencies between files: includes, imports and exported symbols."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from fastrnn import _core

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "fastrnn"
CORE = PACKAGE / "core"
STANDARD_C = {
    "float.h",
    "limits.h",
    "math.h",
    "stdarg.h",
    "stdatomic.h",
    "stdbool.h",
    "stddef.h",
    "stdint.h",
    "stdlib.h",
    "string.h",
}
SYSTEM = {
    "asm/hwcap.h",
    "fcntl.h",
    "pthread.h",
    "sched.h",
    "signal.h",
    "stdio.h",
    "sys/auxv.h",
    "sys/mman.h",
    "sys/stat.h",
    "time.h",
    "unistd.h",
}  # for os/ alone
INTRINSICS = {"arm_neon.h", "immintrin.h"}

C_FILES = sorted(path for path in CORE.rglob("*") if path.suffix in (".c", ".h"))
KERNEL_FILES = [path for path in C_FILES if path.parent.name == "kernels"]
PYTHON_FILES = sorted(PACKAGE.rglob("*.py"))

#: The kinds of ops of models; each knows only their interface.
OPS = [
    "activation",
    "conv1d",
    "embedding",
    "layer_norm",
    "linear",
    "pooling",
    "recurrent",
    "reverse",
    "scale",
    "softmax",
]

#: What a core file may include besides the standard library; a .c file also includes its own header.
DEPENDENCIES = {
    "common": {"fastrnn"},
    "cpu": {"common", "os/os"},
    "structs": {"common"},
    "error": {"common"},
    "allocator": {"common", "error", "structs"},
    "os/os": set(),
    "os/posix": {"allocator", "os/os"},
    "os/linux": {"os/os"},
    "os/other": {"allocator", "os/os"},
    "parallel/spin": {"cpu", "os/os"},
    "parallel/barrier": {"common", "os/os", "parallel/spin"},
    "parallel/team": {"parallel/barrier"},
    "parallel/pool": {"allocator", "common", "cpu", "error", "os/os"},
    "parallel/monitor": {"os/os", "parallel/pool"},
    "parallel/poll": {"cpu", "os/os", "parallel/monitor"},
    "parallel/region": {"cpu", "os/os", "parallel/poll", "parallel/spin"},
    "parallel/team_sync": {"parallel/poll", "parallel/spin", "parallel/team"},
    "dispatch": {"kernels/kernels", "cpu"},
    "probe": {"dispatch"},
    "float16": {"common"},
    "int8_weights": {"kernels/kernels"},
    "matrix": {"float16", "hash", "int8_weights", "kernels/kernels"},
    "hash": {"common"},
    "cell": {"hash", "matrix", "parallel/team"},
    "view": {"common"},
    "sequence": {"cell", "parallel/team_sync", "view"},
    "packed": {"sequence"},
    "layer": {"allocator", "cell", "dispatch", "error", "parallel/pool", "structs"},
    "unrolled": {"allocator", "error", "layer", "sequence"},
    "store": {"error", "layer", "sequence"},
    "snapshot": {"common", "error", "store", "structs"},
    "plan": {"error", "layer", "sequence", "store", "structs", "unrolled"},
    "step": {"cpu", "error", "plan", "store", "structs"},
    "run": {"cpu", "os/os", "packed", "parallel/region", "plan", "store", "unrolled"},
    "segment": {"view"},
    "ops/op": {"error", "hash", "layer", "parallel/poll", "segment", "structs"},
    **{f"ops/{name}": {"error", "ops/op"} for name in OPS},
    "model": {"allocator", "dispatch", "error", "ops/op", "structs"},
    "model_store": {"error", "model", "snapshot", "store"},
    "model_plan": {"error", "model", "model_store", "plan", "structs"},
    "model_unpack": {"error", "model"},
    "model_run": {"cpu", "model_plan", "model_store", "parallel/region", "run"},
    "io/decimal": {"common"},
    "io/json": {"common", "io/decimal"},
    "io/model_file": {"allocator", "error", "io/json"},
    "io/model_load": {"allocator", "error", "float16", "int8_weights", "io/model_file", "os/os"},
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


def top_level_imports(path):
    """The top-level packages that a file imports when it is imported itself, outside of functions."""
    nodes = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and not node.level]
    return {name.split(".")[0] for name in names}


def own_imports(path):
    return {name for name in imports(path) if name.split(".")[0] == "fastrnn"}


def ids(paths):
    return [str(path.relative_to(ROOT)) for path in paths]


def test_there_is_something_to_look_at():
    assert len(C_FILES) > 15 and KERNEL_FILES and len(PYTHON_FILES) > 8
    assert {"fastrnn._core", "fastrnn.spec"} <= imports(PACKAGE / "layers" / "engine.py")


@pytest.mark.parametrize("path", C_FILES, ids=ids(C_FILES))
def test_core_knows_neither_python_nor_blas(path):
    for name in includes(path):
        assert not re.search(r"python|numpy|blas|lapack|mkl|omp", name, re.IGNORECASE), name
    assert not re.search(r"\bPy[A-Z]\w+|\b(printf|fprintf|abort|exit)\s*\(", path.read_text())


@pytest.mark.parametrize("path", KERNEL_FILES, ids=ids(KERNEL_FILES))
def test_kernels_include_kernels_only(path):
    local = {other.name for other in KERNEL_FILES} | {"../common.h", "../float16.h", "fastrnn.h"}
    assert includes(path) <= local | STANDARD_C | INTRINSICS


def name_in_core(path):
    return path.resolve().relative_to(CORE).with_suffix("").as_posix()


@pytest.mark.parametrize("path", [path for path in C_FILES if path not in KERNEL_FILES], ids=lambda path: path.name)
def test_core_includes_downwards_only(path):
    own = name_in_core(path)
    outside = STANDARD_C | (SYSTEM if own.startswith("os/") else set())
    inside = [path.parent / name for name in includes(path) - outside]
    found = {name_in_core(other) if other.exists() else other.stem for other in inside}
    assert found <= DEPENDENCIES[own] | ({own} if path.suffix == ".c" else set())


@pytest.mark.parametrize("path", C_FILES, ids=ids(C_FILES))
def test_only_os_depends_on_the_operating_system(path):
    macros = r"\b(_WIN32|__(unix|linux|gnu_linux|APPLE|MACH|FreeBSD|NetBSD|OpenBSD|CYGWIN|MINGW32|ANDROID)(__)?)\b"
    assert path.parent.name == "os" or not re.search(macros, path.read_text())


def test_public_header_stands_alone():
    assert includes(ROOT / "include" / "fastrnn.h") <= STANDARD_C


@pytest.mark.parametrize("name", ["arguments", "int8_weights", "spec", "functions", "schedule", "masks", "reference"])
def test_plain_modules(name):
    """Each imports only NumPy and the modules of the package that `own` lists."""
    third_party = {module for module in imports(PACKAGE / f"{name}.py") if module.split(".")[0] in ("numpy", "fastrnn")}
    others = imports(PACKAGE / f"{name}.py") - third_party
    assert others <= {"__future__", "collections.abc", "dataclasses", "operator", "typing"}
    own = {
        "functions": {"fastrnn.spec"},
        "spec": {"fastrnn._core", "fastrnn.arguments", "fastrnn.int8_weights"},
        "schedule": {"fastrnn.arguments"},
        "masks": {"fastrnn.arguments", "fastrnn.schedule"},
        "reference": {"fastrnn.int8_weights", "fastrnn.spec"},
    }
    assert own_imports(PACKAGE / f"{name}.py") <= own.get(name, set())


#: Which other importers an importer may import.
IMPORTERS = {
    "flax": {"pytorch"},
    "keras_config": {"keras", "keras_fields", "keras_model", "keras_operations"},
    "keras_fields": {"keras"},
    "keras_model": {"keras", "keras_operations"},
    "keras_operations": {"keras_fields"},
    "pytorch": {"pytorch_module"},
    "pytorch_operations": {"pytorch", "pytorch_module"},
    "tensorflow_checkpoint": {"tensorflow"},
}


def test_importers_know_specs_and_functions_alone():
    paths = sorted((PACKAGE / "importers").glob("*.py"))
    assert paths
    for path in paths:
        others = IMPORTERS.get(path.stem, set()) | {"gate_orders"}
        below = {"fastrnn.functions", "fastrnn.spec"} | {f"fastrnn.importers.{name}" for name in others}
        if not path.stem.startswith("pytorch"):  # which the operations of models import
            below |= {"fastrnn.models.ops", "fastrnn.models.spec"}
        assert own_imports(path) <= below, path.name
        assert not {name.split(".")[0] for name in imports(path)} & {"keras", "torch", "tensorflow", "onnx"}, path.name


#: What a file of files/ may import besides. A Keras file may hold more than a spec can say.
FILES = {
    "keras_file": {"keras", "keras.recurrent", "models.spec"},
    "load": {"layers", "layers.engine", "models.sequential", "models.spec"},
    "native": {"_core", "int8_weights", "models.ops", "models.spec"},
    "onnx_file": {"onnx.constants", "onnx.graph", "onnx.recurrent", "onnx.session"},
}


def test_files_depend_on_importers_and_specs():
    for path in sorted((PACKAGE / "files").glob("*.py")):
        used = {name for name in own_imports(path) if not name.startswith(("fastrnn.files", "fastrnn.importers"))}
        below = {"extras", "spec"} | FILES.get(path.stem, set())
        assert used <= {f"fastrnn.{name}" for name in below}, path.name


def test_commands_for_files_are_imported_when_they_run():
    """The command line imports their arguments alone, and nothing else imports them."""
    for path in PYTHON_FILES:
        used = {name for name in own_imports(path) if name.startswith("fastrnn.commands")}
        if path.parent.name != "commands":
            assert used <= ({"fastrnn.commands", "fastrnn.commands.parsers"} if path.stem == "cli" else set()), (
                path.name
            )
    assert own_imports(PACKAGE / "commands" / "parsers.py") <= {"fastrnn", "fastrnn.extras"}


def test_tensorflows_interface_uses_the_layers():
    for path in set(PYTHON_FILES) - {PACKAGE / "__init__.py"}:
        used = {name for name in own_imports(path) if path.parent.name == "nn" or name.startswith("fastrnn.nn")}
        if path.parent.name == "nn":
            below = {"arguments", "functions", "importers.tensorflow", "layers", "schedule", "spec"}
            below |= {"files.tensorflow_file", "importers.tensorflow_checkpoint"}
            used = {name for name in used if not name.startswith("fastrnn.nn")} - {f"fastrnn.{name}" for name in below}
        assert not used, path.name


#: What a file of torch/ may import of its own package.
TORCH_DEPENDENCIES = {
    "prepared": set(),
    "run": {"prepared"},
    "checks": set(),
    "autocast": set(),
    "modules": {"autocast", "checks", "prepared", "run"},
    "replacement": {"modules"},
    "__init__": {"replacement"},
}


def test_pytorch_is_imported_where_it_is_used():
    """By torch/, which nothing else imports, and elsewhere within functions only."""
    for path in PYTHON_FILES:
        used = {name for name in own_imports(path) if name.startswith("fastrnn.torch")}
        if path.parent.name == "torch":
            assert used <= {f"fastrnn.torch.{name}" for name in TORCH_DEPENDENCIES[path.stem]}, path.name
            below = {"_core", "arguments", "extras", "importers.pytorch", "layers", "runtime", "schedule", "spec"}
            assert own_imports(path) - used <= {"fastrnn", *(f"fastrnn.{name}" for name in below)}, path.name
        else:
            assert not used or path == PACKAGE / "__init__.py", path.name
            assert "torch" not in top_level_imports(path), path.name


#: What a file of serve/ may import of its own package, besides those below it.
SERVE_DEPENDENCIES = {
    "__init__": {"options", "rest", "service"},  # where they are asked for
    "options": set(),
    "refusals": set(),
    "logs": set(),
    "access": {"refusals"},
    "metrics": set(),
    "models": set(),
    "batcher": {"metrics", "models", "options", "refusals"},
    "sessions": {"batcher", "metrics", "models", "options", "refusals"},
    "inference": {"batcher", "models", "options", "refusals", "sessions"},
    "service": {"access", "batcher", "inference", "metrics", "models", "options", "refusals", "sessions"},
    "responses": {"refusals"},
    "websocket": {"access", "batcher", "inference", "metrics", "refusals", "responses", "service"},
    "rest": {"access", "inference", "metrics", "models", "options", "refusals", "responses", "service", "websocket"},
    "grpc_messages": set(),
    "grpc_server": {"access", "grpc_messages", "inference", "metrics", "models", "refusals", "service"},
    "web_server": {"options"},
    "process": {"access", "logs", "models", "options", "rest", "service", "web_server"},
}


def test_the_server_is_imported_when_it_is_asked_for():
    """The command line imports its flags alone, and nothing else imports it but ray/, which runs it in replicas."""
    below = {
        "",
        ".__version__",
        ".extras",
        ".files.load",
        ".layers",
        ".models.sequential",
        ".processors",
        ".spec",
        ".stream_pool",
    }
    for path in PYTHON_FILES:
        used = {name for name in own_imports(path) if name.startswith("fastrnn.serve")}
        if path.parent.name == "serve":
            assert used <= {f"fastrnn.serve.{name}" for name in SERVE_DEPENDENCIES[path.stem]}, path.name
            assert own_imports(path) - used <= {f"fastrnn{name}" for name in below}, path.name
        else:
            users = path.parent.name == "ray" or path in (PACKAGE / "__init__.py", PACKAGE / "cli.py")
            assert not used or users, path.name
    command = (
        "import sys, fastrnn.cli; print([name for name in sys.modules if name in ('starlette', 'asyncio', 'grpc')])"
    )
    assert subprocess.run([sys.executable, "-c", command], capture_output=True, text=True).stdout == "[]\n"


#: What a file of ray/ may import of its own package.
RAY_DEPENDENCIES = {
    "__init__": {"deployment", "predictor"},
    "columns": set(),
    "deployment": {"haproxy", "model_files", "replica", "reserved", "routing", "snapshots"},
    "haproxy": {"routing"},
    "model_files": set(),
    "predictor": {"columns", "model_files", "reserved", "vocabulary"},
    "replica": {"routing", "snapshots"},
    "reserved": set(),
    "routing": set(),
    "snapshots": set(),
    "vocabulary": {"model_files"},
}


def test_ray_is_imported_when_it_is_asked_for():
    files = sorted((PACKAGE / "ray").glob("*.py"))
    assert {path.stem for path in files} == set(RAY_DEPENDENCIES)
    for path in PYTHON_FILES:
        own = {name for name in own_imports(path) if name.startswith("fastrnn.ray.")}
        if path in files:
            assert own == {f"fastrnn.ray.{name}" for name in RAY_DEPENDENCIES[path.stem]}, path.name
        else:
            assert not own, path.name
            assert not top_level_imports(path) & {"filelock", "fsspec", "pyarrow", "ray"}, path.name
    command = "import sys, fastrnn.ray; print([name for name in sys.modules if name in ('ray', 'pyarrow', 'fsspec')])"
    assert subprocess.run([sys.executable, "-c", command], capture_output=True, text=True).stdout == "[]\n"


#: What a file of onnx/ may import of its own package.
ONNX_DEPENDENCIES = {
    "axes": set(),
    "graph": set(),
    "constants": {"graph"},
    "recurrent": {"constants", "graph"},
    "split": {"constants", "graph", "recurrent"},
    "session": {"graph", "split"},
    "values": {"axes"},
    "follower": {"axes", "constants", "graph", "recurrent", "values"},
    "rules": {"axes", "follower", "graph", "values"},
    "chain": {"axes", "constants", "follower", "graph", "recurrent", "rules", "split", "values"},
    "analysis": {"axes", "chain", "constants", "graph", "recurrent", "session", "split", "values"},
    "chain_call": {"axes", "chain", "values"},
    "runner": {"graph"},
    "model": {"analysis", "chain_call", "graph", "recurrent", "runner", "session", "split"},
    "sequential": {"analysis", "chain_call", "runner"},
    "__init__": {"analysis", "graph", "model", "runner", "sequential"},
}


def test_files_of_onnx_import_downwards_only():
    """And the packages onnx and onnxruntime within functions."""
    below = {"arguments", "extras", "importers.onnx", "runtime", "spec", "layers", "layers.calls"}
    below |= {"layers.engine", "layers.layer", "models", "models.ops", "models.sequential", "models.spec"}
    paths = sorted((PACKAGE / "onnx").glob("*.py"))
    assert {path.stem for path in paths} == ONNX_DEPENDENCIES.keys()
    for path in [*paths, PACKAGE / "files" / "onnx_file.py"]:
        assert not {"onnx", "onnxruntime", "google"} & top_level_imports(path), path.name
    for path in paths:
        inside = {f"fastrnn.onnx.{name}" for name in ONNX_DEPENDENCIES[path.stem]}
        assert own_imports(path) <= inside | {f"fastrnn.{name}" for name in below}, path.name


@pytest.mark.parametrize("path", PYTHON_FILES, ids=ids(PYTHON_FILES))
def test_package_needs_no_oracle_tests_or_benchmarks(path):
    for name in imports(path) - ({"fastrnn.reference"} if path == PACKAGE / "models" / "reference.py" else set()):
        assert not re.match(r"fastrnn\.(models\.)?reference\b|tests?\b|bench\b|pytest\b|hypothesis\b", name), name


def test_core_is_called_by_the_engine_modules_only():
    callers = {path.relative_to(PACKAGE).as_posix() for path in PYTHON_FILES if "fastrnn._core" in imports(path)}
    layers = {f"layers/{name}.py" for name in ("calls", "engine", "unrolled")}
    models = {f"models/{name}.py" for name in ("calls", "engine", "streams")}
    others = {
        "__init__.py",
        "spec.py",
        "stream_pool.py",
        "streams.py",
        "runtime.py",
        "thread_limits.py",
        "benchmark/probe.py",
    }
    others |= {"files/native.py", "torch/modules.py", "torch/prepared.py"}
    assert callers <= layers | models | others


#: What a file of layers/ may import of its own package.
LAYERS_DEPENDENCIES = {
    "engine": set(),
    "calls": {"layer"},  # for annotations
    "unrolled": {"calls", "layer"},  # of layer, for annotations
    "layer": {"calls", "engine", "unrolled"},
    "classes": {"layer"},
    "__init__": {"classes", "layer", "unrolled"},
}


@pytest.mark.parametrize("path", sorted((PACKAGE / "layers").glob("*.py")), ids=lambda path: path.name)
def test_files_of_the_layers_import_downwards_only(path):
    found = {name.rsplit(".", 1)[1] for name in own_imports(path) if name.startswith("fastrnn.layers.")}
    assert found <= LAYERS_DEPENDENCIES[path.stem]


#: What a file of models/ may import of the package.
MODELS_DEPENDENCIES = {
    "__init__": set(),
    "ops": {"arguments", "importers"},  # its pytorch_operations
    "spec": {"arguments", "spec", "models.ops"},
    "reference": {"reference", "spec", "models.ops", "models.spec"},
    "folding": {"spec", "models.ops", "models.spec"},
    "engine": {"_core", "layers.engine", "spec", "models.ops", "models.spec"},
    "ids": set(),
    "calls": {"_core", "arguments", "layers.calls", "masks", "packed", "schedule", "models.ids", "models.sequential"},
    "streams": {"_core", "arguments", "streams", "models.ids", "models.sequential"},
    "sequential": {
        *("arguments", "files", "immutable", "importers.pytorch_operations", "layers", "layers.calls"),
        *("layers.layer", "packed", "runtime", "spec", "streams"),
        *(f"models.{name}" for name in ("calls", "engine", "folding", "ops", "spec", "streams")),
    },
}


@pytest.mark.parametrize("path", sorted((PACKAGE / "models").glob("*.py")), ids=lambda path: path.name)
def test_files_of_the_models_import_downwards_only(path):
    """calls and streams import sequential for annotations alone."""
    assert {name.removeprefix("fastrnn.") for name in own_imports(path)} <= MODELS_DEPENDENCIES[path.stem]


@pytest.mark.parametrize("path", C_FILES, ids=ids(C_FILES))
def test_external_functions_have_the_prefix(path):
    """Names of functions defined without `static` begin with fr_ or fastrnn_."""
    text = re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.DOTALL)
    for line in re.findall(r"^(?!static|typedef|FR_INLINE)[A-Za-z][\w \*]*?\b\w+\(", text, re.MULTILINE):
        name = re.search(r"(\w+)\($", line)[1]
        assert re.match(r"(?:fr|fastrnn)_|FR_", name), line


def symbols(path):
    """External symbols that a compiled file defines."""
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


def test_kernels_are_compiled_for_what_the_processor_is_asked_for():
    """The features of a kernel file's target region are those that fr_cpu_has_<isa> checks, and no other."""
    cpu = (CORE / "cpu.c").read_text()
    found = set()

    def checked(isa):
        body = re.search(rf"^bool fr_cpu_has_{isa}\(void\)\s*\{{(.*?)\}}", cpu, re.MULTILINE | re.DOTALL)[1]
        own = re.findall(r'(?:cpu_supports\("|\bhas_)(\w+)', body)
        return {*own, *(feature for other in re.findall(r"fr_cpu_has_(\w+)", body) for feature in checked(other))}

    for path in (CORE / "kernels").glob("kernels_*.c"):
        for features in re.findall(r'FR_TARGET_BEGIN\("(.*)"\)', path.read_text()):
            isa = path.stem.removeprefix("kernels_")
            found.add(isa)
            if isa == "neon_dotprod":  # whose feature is a bit of the operating system
                assert features == "arch=armv8.2-a+dotprod" and "fr_processor_has_dotprod()" in cpu
            else:
                assert checked(isa) == set(features.split(",")), isa
    assert found == {"avx2", "avx2_vnni", "avx512", "avx512_vnni", "neon_dotprod"}
    for name in ("setup.py", "tests/capi/run.sh", "bench/capi/run.sh"):
        assert not re.search(r"-m(avx|fma|sse|fpu|arch|cpu)", (ROOT / name).read_text()), name


def test_run_time_needs_numpy_and_scipy_alone():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert sorted(re.match(r"[\w-]+", need)[0] for need in project["dependencies"]) == ["numpy", "scipy"]


def test_every_package_is_installed():
    """An editable install finds packages that pyproject.toml does not list; any other install lacks them."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert sorted(listed) == sorted(
        ".".join(path.parent.relative_to(ROOT).parts) for path in PACKAGE.rglob("__init__.py")
    )


def test_every_kernel_table_is_listed():
    """A table that isa_list.h does not name is compiled and never used."""
    listed = set(re.findall(r"[XY]\((\w+)\)", (CORE / "kernels" / "isa_list.h").read_text()))
    tables = {path.stem.removeprefix("kernels_") for path in (CORE / "kernels").glob("kernels_*.c")}
    assert tables - {"scalar_f64"} == listed - {"isa", "name"}  # scalar_f64 is for BLAS alone; "name" is in the comment


def test_cython_has_every_declaration_of_the_header():
    """c_api.pxd declares every function, enumerator and struct member of fastrnn.h."""
    header = re.sub(r"/\*.*?\*/", "", (ROOT / "include" / "fastrnn.h").read_text(), flags=re.DOTALL)
    declared = set(re.findall(r"\w+", (PACKAGE / "c_api.pxd").read_text()))
    functions = set(re.findall(r"\b(fastrnn_\w+)\(", header))
    structs = re.findall(r"typedef struct \w+ \{(.*?)\} (\w+);", header, re.DOTALL)
    assert len(functions) > 20 and len(structs) > 8
    for body, name in structs:
        plain = [member for member in re.sub(r"\[.*?\]", "", body).split(";") if member.strip() and "(" not in member]
        names = {word for member in plain for word in re.findall(r"(\w+)\s*(?:,|$)", member.strip())}
        assert {name, *names} - {"opaque"} <= declared
    enums = re.findall(r"typedef enum \w+ \{(.*?)\} \w+;", header, re.DOTALL)
    names = {name for body in enums if "#define" not in body for name in re.findall(r"\bFASTRNN_\w+", body)}
    assert functions | names <= declared
