"""Builds the extension module. All settings that do not concern the compiler are in pyproject.toml."""

import re
import sys
import sysconfig
from pathlib import Path

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

CORE = Path("fastrnn/core")
KERNELS = CORE / "kernels"
BINDING = [Path("fastrnn/c_api.pxd"), *sorted(Path("fastrnn/binding").glob("*.pxi"))]
FLAGS = ["-std=c11", "-O3", "-g0", "-fvisibility=hidden", "-ffp-contract=off", "-Wall", "-Wextra"]

#: Kernel tables by processor family, with the compiler flags for the file of each.
ISA_FLAGS = {
    "x86": {
        "scalar": [],
        "scalar_f64": [],
        "avx2": ["-mavx2", "-mfma"],
        "avx512": ["-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mfma"],
    },
    "arm64": {"scalar": [], "scalar_f64": [], "neon": []},
    "other": {"scalar": [], "scalar_f64": []},
}


def family() -> str:
    platform = sysconfig.get_platform()
    if re.search(r"x86_64|amd64", platform):
        return "x86"
    return "arm64" if re.search(r"aarch64|arm64", platform) else "other"


class BuildKernels(build_ext):
    """Compile each kernel table with its own flags and link the objects in."""

    def build_extension(self, ext: Extension) -> None:
        for isa, flags in ISA_FLAGS[family()].items():
            ext.extra_objects += self.compiler.compile(
                [str(KERNELS / f"kernels_{isa}.c")],
                self.build_temp,
                include_dirs=ext.include_dirs,
                extra_postargs=ext.extra_compile_args + flags,
                depends=ext.depends,
            )
        super().build_extension(ext)


def version() -> str:
    header = Path("include/fastrnn.h").read_text()
    return re.search(r'#define FASTRNN_VERSION "(.+)"', header)[1]


extension = Extension(
    "fastrnn._core",
    ["fastrnn/_core.pyx", *map(str, sorted(CORE.glob("*.c")))],
    include_dirs=["include", numpy.get_include()],
    define_macros=[("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION")],
    extra_compile_args=FLAGS,
    depends=[str(p) for p in [*BINDING, *CORE.rglob("*.h"), *KERNELS.glob("*.c"), Path("include/fastrnn.h")]],
)

if sys.platform != "win32":
    extension.libraries.append("m")
    extension.extra_compile_args.append("-pthread")
    extension.extra_link_args.append("-pthread")

setup(version=version(), ext_modules=cythonize([extension]), cmdclass={"build_ext": BuildKernels})
