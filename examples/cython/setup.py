"""Builds streams.pyx against the installed fastrnn: ``python setup.py build_ext --inplace``."""

from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

import fastrnn

streams = Extension(
    "streams",
    ["streams.pyx"],
    include_dirs=[fastrnn.get_include()],
    extra_objects=[fastrnn.get_library()],
    extra_link_args=["-lm", "-pthread"],
)
site = Path(fastrnn.__file__).parents[1]  # where Cython finds fastrnn/__init__.pxd, of an editable install too
setup(name="streams", ext_modules=cythonize([streams], include_path=[str(site)]))
