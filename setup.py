"""Builds the extension module. All other settings of the package are in pyproject.toml."""

import os
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

CORE = Path("fastrnn/core")
BINDING = [Path("fastrnn/c_api.pxd"), *sorted(Path("fastrnn/binding").glob("*.pxi"))]
FLAGS = ["-std=c11", "-O3", "-g0", "-fvisibility=hidden", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror=switch"]


def version() -> str:
    header = Path("include/fastrnn.h").read_text()
    return re.search(r'#define FASTRNN_VERSION "(.+)"', header)[1]


class BuildExt(build_ext):
    """Compiles the sources on all processors; setuptools does it one after the other."""

    def build_extensions(self) -> None:
        compile_all = self.compiler.compile

        def compile_each(sources: list[str], **options: object) -> list[str]:
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                parts = list(pool.map(lambda source: compile_all([source], **options), sources))
            return [name for part in parts for name in part]

        self.compiler.compile = compile_each
        super().build_extensions()


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

setup(version=version(), ext_modules=cythonize([extension]), cmdclass={"build_ext": BuildExt})
