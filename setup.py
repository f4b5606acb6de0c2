"""Builds the extension module. All other settings of the package are in pyproject.toml."""

import os
import re
import shutil
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


#: For programs that link the C library with pkg-config.
PKG_CONFIG = """\
prefix=${{pcfiledir}}/../..
includedir=${{prefix}}/include
libdir=${{prefix}}/lib

Name: fastrnn
Description: Trained recurrent networks (LSTM, GRU, RNN) on CPUs
Version: {version}
Cflags: -I${{includedir}}
Libs: ${{libdir}}/libfastrnn.a -lm -pthread
"""


class BuildExt(build_ext):
    """Compiles the sources on all processors, and makes the C library of the core."""

    def build_extensions(self) -> None:
        compile_all = self.compiler.compile
        core_objects: list[str] = []

        def compile_each(sources: list[str], **options: object) -> list[str]:
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                parts = list(pool.map(lambda source: compile_all([source], **options), sources))
            core_objects.extend(
                name
                for source, part in zip(sources, parts, strict=True)
                if CORE in Path(source).parents
                for name in part
            )
            return [name for part in parts for name in part]

        self.compiler.compile = compile_each
        super().build_extensions()
        self.write_library(Path(self.get_ext_fullpath("fastrnn._core")).parent, core_objects)

    def copy_extensions_to_source(self) -> None:
        """For an editable install: also the library, and not the module alone."""
        super().copy_extensions_to_source()
        for folder in ("include", "lib"):
            shutil.copytree(Path(self.build_lib, "fastrnn", folder), Path("fastrnn", folder), dirs_exist_ok=True)

    def write_library(self, package: Path, objects: list[str]) -> None:
        """Write what `get_include` and `get_library` name: the header, a static library, and a .pc file."""
        for folder in ("include", "lib/pkgconfig"):
            (package / folder).mkdir(parents=True, exist_ok=True)
        shutil.copyfile("include/fastrnn.h", package / "include" / "fastrnn.h")
        (package / "lib" / "pkgconfig" / "fastrnn.pc").write_text(PKG_CONFIG.format(version=version()))
        library = package / "lib" / self.compiler.library_filename("fastrnn")
        library.unlink(missing_ok=True)  # members of an older build would stay in it
        self.compiler.create_static_lib(objects, "fastrnn", output_dir=str(library.parent))


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
