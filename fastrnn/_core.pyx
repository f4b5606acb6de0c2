# cython: language_level=3, boundscheck=False, wraparound=False
"""The binding of the C core: it checks arguments, calls C without the GIL, and turns status codes into exceptions.

Arrays are checked by their C structures, even if the Python layers have checked them, because a subclass of ndarray may
report any shape, strides or length.

The module does not declare itself compatible with free threading, so a free-threaded Python turns its GIL on when it
imports the module: Stream.busy and Layer.spare are plain fields, which the GIL guards.
"""

cimport numpy as cnp
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from cpython.pycapsule cimport PyCapsule_GetName, PyCapsule_GetPointer
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from libc.string cimport memcmp, memset

from .c_api cimport *

import os
import sys
import threading
import weakref

import numpy as np

from .arguments import as_array, as_floats, as_ids, check_casting

cnp.import_array()

__version__ = fastrnn_version().decode()

# The module is one extension; its parts are in files of one subject each, which use what those above them define.
include "binding/names.pxi"
include "binding/interrupts.pxi"
include "binding/errors.pxi"
include "binding/kernels.pxi"
include "binding/blas.pxi"
include "binding/workspace.pxi"
include "binding/thread_pool.pxi"
include "binding/arrays.pxi"
include "binding/batch.pxi"
include "binding/layer.pxi"
include "binding/unrolled.pxi"
include "binding/stream.pxi"
include "binding/model.pxi"
include "binding/model_file.pxi"
include "binding/stream_pool.pxi"
include "binding/tensors.pxi"
