"""Builds the extension module. All other settings of the package are in pyproject.toml."""

import re
import sys
from pathlib import Path

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup

CORE = Path("fastrnn/core")
BINDING = [Path("fastrnn/c_api.pxd"), *sorted(Path("fastrnn/binding").glob("*.pxi"))]
FLAGS = ["-std=c11", "-O3", "-g0", "-fvisibility=hidden", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror=switch"]


def version() -> str:
    header = Path("include/fastrnn.h").read_text()
    return re.search(r'#define FASTRNN_VERSION "(.+)"', header)[1]


extension = Extension(
    "fastrnn._core",
    ["fastrnn/_core.pyx", *map(str, sorted(set(CORE.rglob("*.c")) - set(CORE.rglob("*.inc.c"))))],
    include_dirs=["include", numpy.get_include()],
    define_macros=[("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION")],
    extra_compile_args=FLAGS,
    depends=[str(p) for p in [*BINDING, *CORE.rglob("*.h"), *CORE.rglob("*.inc.c"), Path("include/fastrnn.h")]],
)

if sys.platform != "win32":
    extension.libraries.append("m")
    extension.extra_compile_args.append("-pthread")
    extension.extra_link_args.append("-pthread")

setup(version=version(), ext_modules=cythonize([extension]))
