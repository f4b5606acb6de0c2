# cython: language_level=3, boundscheck=False, wraparound=False
"""The binding of the C core: it checks arguments, calls C without the GIL, and turns status codes into exceptions.

Arrays are checked by their C structures, also where the Python layers have checked them: a subclass of ndarray may
report any shape, strides or length.

The module does not declare itself compatible with free threading, so that importing it turns the GIL of such a Python
on: Stream.busy and Layer.spare are plain fields, which the GIL guards.
"""

cimport numpy as cnp
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from cpython.pycapsule cimport PyCapsule_GetName, PyCapsule_GetPointer
from libc.stdint cimport int64_t, uint32_t, uint64_t, uintptr_t
from libc.string cimport memcpy, memset

import os
import sys
import threading

import numpy as np

from .arguments import as_array, as_floats, check_casting

cnp.import_array()

cdef extern from "Python.h":
    int PyErr_CheckSignals() noexcept
    unsigned long PyThread_get_thread_ident() noexcept nogil

cdef extern from "core/clock.h":
    double fr_seconds() noexcept nogil

cdef extern from "fastrnn.h" nogil:
    ctypedef enum fastrnn_status:
        FASTRNN_OK
        FASTRNN_ERROR_ARGUMENT
        FASTRNN_ERROR_MEMORY
        FASTRNN_ERROR_SIZE
        FASTRNN_ERROR_SNAPSHOT
        FASTRNN_ERROR_INTERRUPTED
        FASTRNN_ERROR_FORKED
    ctypedef enum fastrnn_kind:
        FASTRNN_LSTM
        FASTRNN_GRU
        FASTRNN_RNN
    ctypedef enum fastrnn_dtype:
        FASTRNN_FLOAT32
        FASTRNN_FLOAT64
    ctypedef enum fastrnn_activation_name:
        pass
    ctypedef struct fastrnn_activation:
        fastrnn_activation_name name
        double alpha
        double beta
    ctypedef struct fastrnn_config:
        size_t struct_size
        fastrnn_kind kind
        fastrnn_dtype dtype
        int64_t input_size, hidden_size, proj_size, num_layers
        int bidirectional, reverse
    ctypedef struct fastrnn_cell_options:
        fastrnn_activation activations[5]
        double cell_clip, gate_clip, proj_clip
        int coupled, reset_before
    ctypedef struct fastrnn_cell:
        size_t struct_size
        const void *weight_ih
        const void *weight_hh
        const void *bias_ih
        const void *bias_hh
        const void *weight_hr
        const void *peephole
        fastrnn_cell_options options
    ctypedef struct fastrnn_cell_arrays:
        size_t struct_size
        void *weight_ih
        void *weight_hh
        void *bias_ih
        void *bias_hh
        void *weight_hr
        void *peephole
    ctypedef struct fastrnn_snapshot_info:
        size_t struct_size
        uint32_t version, real_size
        uint64_t fingerprint
        int64_t num_rows
    ctypedef struct fastrnn_blas:
        size_t struct_size
        void *sgemm
        void *dgemm
    ctypedef struct fastrnn_layer
    ctypedef struct fastrnn_unrolled
    ctypedef struct fastrnn_pool
    ctypedef struct fastrnn_view:
        void *base
        void **rows
        const int64_t *step_offsets
        int64_t row_stride, step_stride
    ctypedef enum fastrnn_past_end:
        FASTRNN_PAST_END_NOTHING
        FASTRNN_PAST_END_ZERO
        FASTRNN_PAST_END_CARRY
    ctypedef struct fastrnn_batch:
        int64_t num_rows, num_steps
        const int64_t *lengths
        const int64_t *batch_sizes
        fastrnn_view x
        fastrnn_view y
        fastrnn_past_end past_end
        int64_t padded_steps
        int (*interrupted)(void *) noexcept nogil
        void *interrupted_context
        fastrnn_pool *pool
        const int64_t *slots
    ctypedef struct fastrnn_boundary:
        const void *h0
        const void *c0
        void *hn
        void *cn
        const int64_t *indices
    const char *fastrnn_status_message(fastrnn_status)
    const char *fastrnn_version()
    const char *fastrnn_isa(size_t)
    const char *fastrnn_activation_info(size_t, fastrnn_activation *, int *)
    fastrnn_status fastrnn_layer_create(const fastrnn_config *, const fastrnn_cell *, const char *, const fastrnn_blas *,
                                        fastrnn_layer **)
    void fastrnn_layer_destroy(fastrnn_layer *)
    const char *fastrnn_layer_isa(const fastrnn_layer *)
    size_t fastrnn_layer_nbytes(const fastrnn_layer *)
    uint64_t fastrnn_layer_fingerprint(const fastrnn_layer *)
    fastrnn_status fastrnn_layer_unpack(const fastrnn_layer *, int64_t, const fastrnn_cell_arrays *, fastrnn_cell *)
    fastrnn_status fastrnn_pool_create(int, fastrnn_pool **)
    void fastrnn_pool_destroy(fastrnn_pool *)
    void fastrnn_pool_set_threshold(fastrnn_pool *, double)
    fastrnn_status fastrnn_workspace_size(const fastrnn_layer *, const fastrnn_batch *, size_t *)
    fastrnn_status fastrnn_run(const fastrnn_layer *, const fastrnn_batch *, const fastrnn_boundary *, void *)
    fastrnn_status fastrnn_stream_size(const fastrnn_layer *, int64_t, size_t *)
    fastrnn_status fastrnn_stream_set(const fastrnn_layer *, int64_t, void *, const fastrnn_boundary *)
    fastrnn_status fastrnn_stream_set_slots(const fastrnn_layer *, int64_t, const int64_t *, void *, const fastrnn_boundary *)
    fastrnn_status fastrnn_stream_snapshot_size(const fastrnn_layer *, int64_t, size_t *)
    fastrnn_status fastrnn_stream_snapshot(const fastrnn_layer *, int64_t, const void *, void *)
    fastrnn_status fastrnn_stream_restore(const fastrnn_layer *, int64_t, void *, const void *, size_t)
    fastrnn_status fastrnn_snapshot_describe(const void *, size_t, fastrnn_snapshot_info *)
    fastrnn_status fastrnn_stream_get(const fastrnn_layer *, int64_t, const void *, const fastrnn_boundary *)
    fastrnn_status fastrnn_stream_run(const fastrnn_layer *, const fastrnn_batch *, void *, void *)
    fastrnn_status fastrnn_unrolled_create(const fastrnn_layer *, int64_t, fastrnn_unrolled **)
    void fastrnn_unrolled_destroy(fastrnn_unrolled *)
    fastrnn_status fastrnn_unrolled_run(const fastrnn_unrolled *, const fastrnn_batch *, const fastrnn_boundary *, void *)

cdef extern from "core/probe.h" nogil:
    fastrnn_status fr_activate(const char *, fastrnn_activation, int64_t, const float *, float *)
    fastrnn_status fr_probe_fma(const char *, int64_t, int64_t *, double *)
    fastrnn_status fr_probe_read(const char *, int64_t, int64_t, const float *, double *)

__version__ = fastrnn_version().decode()

PAST_ENDS = {"zero": FASTRNN_PAST_END_ZERO, "carry": FASTRNN_PAST_END_CARRY}
KINDS = {"lstm": FASTRNN_LSTM, "gru": FASTRNN_GRU, "rnn": FASTRNN_RNN}
NUM_GATES = {"lstm": 4, "gru": 3, "rnn": 1}


def _activations():
    """name -> (number, default alpha, default beta), None for defaults that do not exist."""
    cdef fastrnn_activation activation
    cdef int has_defaults
    cdef const char *name = fastrnn_activation_info(0, &activation, &has_defaults)
    found = {}
    while name != NULL:
        defaults = (activation.alpha, activation.beta) if has_defaults else (None, None)
        found[name.decode()] = (<int>activation.name, *defaults)
        name = fastrnn_activation_info(len(found), &activation, &has_defaults)
    return found


ACTIVATIONS = {name: number for name, (number, _, _) in _activations().items()}
ACTIVATION_NAMES = {number: name for name, number in ACTIVATIONS.items()}
ACTIVATION_DEFAULTS = {name: (alpha, beta) for name, (_, alpha, beta) in _activations().items()}

DEF ALIGNMENT = 64
DEF KEPT_BYTES = 1 << 22  # of a workspace between calls: a few megabytes, not a rare giant
DEF LONG_WORK = 1 << 22  # multiply-adds of a gate; with fewer, a call is over before it could be interrupted
DEF ROW_WORK = 64  # what a step of a row costs besides
DEF SHORT_WORK = 1 << 13  # some 2 us, shared with no other thread: giving the GIL away and waiting for it could cost more
DEF COPY_BYTES = 1 << 22


DEF GIL_SHARE = 20  # the GIL is asked for again after this many times as long as it last took to come,
DEF GIL_SECONDS = 1.0  # or after this

cdef unsigned long main_thread
cdef double asks_next = 0  # the main thread's; seconds


def _note_main_thread():
    global main_thread
    main_thread = threading.main_thread().ident


_note_main_thread()
os.register_at_fork(after_in_child=_note_main_thread)


cdef int check_signals(void *context) noexcept nogil:
    """Signal handlers run on the main thread only. There is no public way to know without the GIL that a signal came,
    and beside a busy thread the GIL takes 5 ms and more to come: the wait is measured, and the next one put off."""
    global asks_next
    if PyThread_get_thread_ident() != main_thread:
        return 0
    cdef double came, asked = fr_seconds()
    if asked < asks_next:
        return 0
    with gil:
        came = fr_seconds()
        asks_next = came + min(GIL_SHARE * (came - asked), GIL_SECONDS)
        return PyErr_CheckSignals()  # a raised exception stays set until raise_status hands it on


cdef int pending_exception() except -1:
    return -1


cdef int raise_status(fastrnn_status status) except -1:
    if status == FASTRNN_OK:
        return 0
    if status == FASTRNN_ERROR_INTERRUPTED:
        return pending_exception()
    message = fastrnn_status_message(status).decode()
    if status == FASTRNN_ERROR_MEMORY:
        raise MemoryError(message)
    if status == FASTRNN_ERROR_FORKED:
        raise RuntimeError(message)
    raise ValueError(message)


def available_isas():
    """Names of the instruction sets that can run here, best first."""
    names, i = [], 0
    while fastrnn_isa(i) != NULL:
        names.append(fastrnn_isa(i).decode())
        i += 1
    return names


def activate(isa, name, x, alpha=0.0, beta=0.0):
    """One kernel variant's activation of a 1-D float32 array; for tests."""
    cdef const float[::1] values = np.ascontiguousarray(x, np.float32)
    cdef cnp.ndarray y = np.empty(values.shape[0], np.float32)
    cdef float[::1] out = y
    cdef fastrnn_activation activation = fastrnn_activation(ACTIVATIONS[name], alpha, beta)
    cdef bytes isa_name = isa.encode()
    if values.shape[0]:
        raise_status(fr_activate(isa_name, activation, values.shape[0], &values[0], &out[0]))
    return y


def probe_fma(isa, rounds):
    """`rounds` rounds of multiply-adds in registers: how many they were, and the lanes' sum."""
    cdef bytes isa_name = isa.encode()
    cdef int64_t number = rounds, multiply_adds
    cdef double total
    cdef fastrnn_status status
    cdef const char *name = isa_name
    with nogil:
        status = fr_probe_fma(name, number, &multiply_adds, &total)
    raise_status(status)
    return multiply_adds, total


def probe_read(isa, values, times):
    """Read a 1-D float32 array `times` times; aligned to 64 bytes, a multiple of 256 long. The sum of all reads."""
    cdef const float[::1] view = values
    cdef bytes isa_name = isa.encode()
    cdef const char *name = isa_name
    cdef int64_t number = times
    cdef double total
    cdef fastrnn_status status
    with nogil:
        status = fr_probe_read(name, number, view.shape[0], &view[0], &total)
    raise_status(status)
    return total


cdef fastrnn_blas blas
cdef bint blas_is_loaded = False


def load_blas():
    """Take sgemm and dgemm from SciPy, once.

    Raises
    ------
    ImportError
        SciPy's BLAS is not what this module can call.
    """
    global blas_is_loaded
    if blas_is_loaded:
        return
    if sys.byteorder != "little":
        raise ImportError("the BLAS backend passes 64-bit integers to a BLAS of either width, which needs a "
                          f"little-endian machine; this one is {sys.byteorder}-endian")
    from scipy.linalg import cython_blas
    for name in ("sgemm", "dgemm"):
        capsule = cython_blas.__pyx_capi__.get(name)
        if capsule is None:
            raise ImportError(f"scipy.linalg.cython_blas has no {name}")
        signature = PyCapsule_GetName(capsule)
        arguments = signature.decode().count(",") + 1
        if arguments != 13:
            raise ImportError(f"scipy.linalg.cython_blas.{name} has {arguments} arguments, wanted 13: {signature.decode()}")
        if name == "sgemm":
            blas.sgemm = PyCapsule_GetPointer(capsule, signature)
        else:
            blas.dgemm = PyCapsule_GetPointer(capsule, signature)
    blas.struct_size = sizeof(fastrnn_blas)
    blas_is_loaded = True


cdef class Workspace:
    """A block of scratch memory."""
    cdef void *memory
    cdef size_t size

    def __dealloc__(self):
        PyMem_RawFree(self.memory)

    cdef int reserve(self, size_t size) except -1:
        if size > self.size:
            PyMem_RawFree(self.memory)
            self.size = 0
            self.memory = PyMem_RawMalloc(size)
            if self.memory == NULL:
                raise MemoryError(f"no memory for a workspace of {size} bytes")
            self.size = size
        return 0


cdef int64_t pools_made = 0


cdef class Pool:
    """Threads for one call at a time."""
    cdef fastrnn_pool *pool
    cdef readonly int num_threads
    cdef int64_t number  # no other pool has it, or will

    def __cinit__(self, int num_threads, double threshold):
        global pools_made
        pools_made += 1
        self.number = pools_made
        self.num_threads = num_threads
        raise_status(fastrnn_pool_create(num_threads, &self.pool))
        fastrnn_pool_set_threshold(self.pool, threshold)

    def __dealloc__(self):
        with nogil:
            fastrnn_pool_destroy(self.pool)


cdef Pool shared_pool = Pool(1, 1)


def set_num_threads(int num_threads, double threshold=1):
    """Calls that begin from now on share a pool of so many threads; threshold as in fastrnn_pool_set_threshold."""
    global shared_pool
    shared_pool = Pool(num_threads, threshold)


def get_num_threads():
    return shared_pool.num_threads


cdef const void *address(array) noexcept:
    return NULL if array is None else cnp.PyArray_DATA(<cnp.ndarray>array)


cdef void set_view(fastrnn_view *view, arrays, const int64_t *indices, void **rows, const int64_t *step_offsets) noexcept:
    """Point at (B, T, width) with any outer strides, a list of (T_i, width), or packed (N, width)."""
    cdef Py_ssize_t i
    cdef cnp.ndarray array
    view.base = NULL
    view.rows = NULL
    view.step_offsets = NULL
    if isinstance(arrays, list):
        view.rows = rows
        view.row_stride = 0
        view.step_stride = 1
        for i in range(len(arrays)):
            array = <cnp.ndarray>arrays[i if indices == NULL else indices[i]]
            rows[i] = cnp.PyArray_DATA(array)
            view.step_stride = cnp.PyArray_DIM(array, 1)
        return
    array = <cnp.ndarray>arrays
    view.base = cnp.PyArray_DATA(array)
    if step_offsets != NULL:
        view.step_offsets = step_offsets
        view.row_stride = view.step_stride = cnp.PyArray_DIM(array, 1)
        return
    view.row_stride = cnp.PyArray_STRIDE(array, 0) // cnp.PyArray_ITEMSIZE(array)
    view.step_stride = cnp.PyArray_STRIDE(array, 1) // cnp.PyArray_ITEMSIZE(array)
    if indices != NULL:
        view.rows = rows
        for i in range(cnp.PyArray_DIM(array, 0)):
            rows[i] = <char *>view.base + indices[i] * cnp.PyArray_STRIDE(array, 0)


cdef const int64_t *integers(array, str name, int64_t count) except? NULL:
    """The data of `count` int64, or NULL for None."""
    if array is None:
        return NULL
    check_array(array, name, "int64", cnp.NPY_INT64, 1, False)
    if cnp.PyArray_DIM(<cnp.ndarray>array, 0) != count or not cnp.PyArray_ISCARRAY_RO(<cnp.ndarray>array):
        raise ValueError(f"{name} is {describe(array)}, wanted {count} adjacent numbers")
    return <const int64_t *>cnp.PyArray_DATA(<cnp.ndarray>array)


cdef int64_t count_of(array, str name) except -1:
    if not cnp.PyArray_Check(array) or cnp.PyArray_NDIM(<cnp.ndarray>array) != 1:
        raise TypeError(f"{name} is {describe(array)}, wanted one dimension of integers")
    return cnp.PyArray_DIM(<cnp.ndarray>array, 0)


cdef str describe(array):
    """A true description, of the C structure."""
    if not cnp.PyArray_Check(array):
        return type(array).__name__
    base = np.asarray(array)
    return f"{base.dtype} of shape {base.shape} and strides {base.strides}"


cdef int check_array(array, str name, dtype, int type_number, int ndim, bint writes) except -1:
    """Whether it is an array of this machine's numbers of one type, each vector of its last axis adjacent."""
    cdef cnp.ndarray checked
    cdef int axis
    if not cnp.PyArray_Check(array):
        raise TypeError(f"{name} is {describe(array)}, wanted an array")
    checked = <cnp.ndarray>array
    if (cnp.PyArray_TYPE(checked) != type_number or not cnp.PyArray_ISNOTSWAPPED(checked)
            or not cnp.PyArray_ISALIGNED(checked) or (writes and not cnp.PyArray_ISWRITEABLE(checked))):
        raise TypeError(f"{name} is {describe(array)}, wanted aligned {'writeable ' if writes else ''}{dtype}")
    if cnp.PyArray_NDIM(checked) != ndim:
        raise ValueError(f"{name} is {describe(array)}, wanted {ndim} dimensions")
    for axis in range(ndim if cnp.PyArray_SIZE(checked) else 0):
        if (cnp.PyArray_STRIDE(checked, axis) % cnp.PyArray_ITEMSIZE(checked)
                or (axis == ndim - 1 and cnp.PyArray_DIM(checked, axis) > 1
                    and cnp.PyArray_STRIDE(checked, axis) != cnp.PyArray_ITEMSIZE(checked))):
            raise ValueError(f"{name} is {describe(array)}, wanted adjacent elements")
    return 0


cdef class Layer:
    """A prepared layer. The Python layers check what arguments mean; this class checks that their memory may be used."""
    cdef fastrnn_layer *layer
    cdef readonly int64_t num_layers, hidden_size, h_size, num_directions, input_size
    cdef readonly bint is_lstm
    cdef int num_gates
    cdef readonly object dtype
    cdef int type_number
    cdef list spare  # workspaces of earlier calls

    def __cinit__(self, kind, dtype, int64_t input_size, int64_t hidden_size, int64_t proj_size, int64_t num_layers,
                  bint bidirectional, bint reverse, list cells, isa, bint use_blas):
        cdef fastrnn_config config
        cdef fastrnn_cell *prepared
        cdef fastrnn_cell *cell
        cdef bytes isa_name = b"" if isa is None else isa.encode()
        cdef const char *isa_pointer = NULL
        cdef fastrnn_status status
        if isa is not None:
            isa_pointer = isa_name
        self.dtype = np.dtype(dtype)
        self.type_number = self.dtype.num
        self.is_lstm = kind == "lstm"
        self.num_gates = NUM_GATES[kind]
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.h_size = proj_size or hidden_size
        self.num_directions = 2 if bidirectional else 1
        self.spare = []
        config.struct_size = sizeof(fastrnn_config)
        config.kind = KINDS[kind]
        config.dtype = FASTRNN_FLOAT32 if self.dtype == np.float32 else FASTRNN_FLOAT64
        config.input_size, config.hidden_size, config.proj_size = input_size, hidden_size, proj_size
        config.num_layers, config.bidirectional, config.reverse = num_layers, bidirectional, reverse
        if len(cells) != self.num_layers * self.num_directions:
            raise ValueError(f"cells has {len(cells)} entries, wanted {self.num_layers * self.num_directions}")
        if use_blas:
            load_blas()
        prepared = <fastrnn_cell *>PyMem_RawMalloc(len(cells) * sizeof(fastrnn_cell))
        if prepared == NULL:
            raise MemoryError("no memory for the layer's description")
        memset(prepared, 0, len(cells) * sizeof(fastrnn_cell))
        units = self.num_gates * self.hidden_size
        try:
            for i, (arrays, activations, clips, coupled, linear_before_reset) in enumerate(cells):
                cell = &prepared[i]
                cell.struct_size = sizeof(fastrnn_cell)
                width = self.input_size if i < self.num_directions else self.num_directions * self.h_size
                for array, name, rows, columns in (
                    (arrays[0], "weight_ih", units, width),
                    (arrays[1], "weight_hh", units, self.h_size),
                    (arrays[2], "bias_ih", 1, units),
                    (arrays[3], "bias_hh", 1, units),
                    (arrays[4], "weight_hr", self.h_size, self.hidden_size),
                    (arrays[5], "peephole", 3, self.hidden_size),
                ):
                    self.check_block(array, f"{name} of cell {i}", 1, rows, columns, False)
                cell.weight_ih, cell.weight_hh = address(arrays[0]), address(arrays[1])
                cell.bias_ih, cell.bias_hh = address(arrays[2]), address(arrays[3])
                cell.weight_hr, cell.peephole = address(arrays[4]), address(arrays[5])
                for j, (name, alpha, beta) in enumerate(activations[:5]):
                    cell.options.activations[j] = fastrnn_activation(ACTIVATIONS[name], alpha, beta)
                cell.options.cell_clip, cell.options.gate_clip, cell.options.proj_clip = clips
                cell.options.coupled, cell.options.reset_before = coupled, not linear_before_reset
            with nogil:
                status = fastrnn_layer_create(&config, prepared, isa_pointer, &blas if use_blas else NULL, &self.layer)
            raise_status(status)
        finally:
            PyMem_RawFree(prepared)

    def __dealloc__(self):
        fastrnn_layer_destroy(self.layer)

    @property
    def isa(self):
        return fastrnn_layer_isa(self.layer).decode()

    @property
    def nbytes(self):
        return fastrnn_layer_nbytes(self.layer)

    @property
    def fingerprint(self):
        return fastrnn_layer_fingerprint(self.layer)

    def unpack(self):
        """The cells as the constructor takes them, but for biases, which are added up where the cell adds them."""
        cdef fastrnn_cell_arrays arrays
        cdef fastrnn_cell cell
        cdef fastrnn_cell_options *options
        cells = []
        arrays.struct_size, cell.struct_size = sizeof(fastrnn_cell_arrays), sizeof(fastrnn_cell)
        rows = self.num_gates * self.hidden_size
        for i in range(self.num_layers * self.num_directions):
            width = self.input_size if i < self.num_directions else self.num_directions * self.h_size
            shapes = ((rows, width), (rows, self.h_size), (rows,), (rows,), (self.h_size, self.hidden_size),
                      (3, self.hidden_size))
            parts = [np.empty(shape, self.dtype) for shape in shapes]
            arrays.weight_ih, arrays.weight_hh = <void *>address(parts[0]), <void *>address(parts[1])
            arrays.bias_ih, arrays.bias_hh = <void *>address(parts[2]), <void *>address(parts[3])
            arrays.weight_hr, arrays.peephole = <void *>address(parts[4]), <void *>address(parts[5])
            raise_status(fastrnn_layer_unpack(self.layer, i, &arrays, &cell))
            if cell.weight_hr == NULL:
                parts[4] = None
            if cell.peephole == NULL:
                parts[5] = None
            options = &cell.options
            activations = [
                (ACTIVATION_NAMES[options.activations[j].name], options.activations[j].alpha, options.activations[j].beta)
                for j in range(self.num_gates + self.is_lstm)
            ]
            clips = (options.cell_clip, options.gate_clip, options.proj_clip)
            cells.append((tuple(parts), activations, clips, bool(options.coupled), not options.reset_before))
        return cells

    cdef int check_block(self, array, str name, int64_t parts, int64_t rows, int64_t columns, bint writes) except -1:
        """Whether it is None, or C-contiguous, and of so many elements."""
        cdef cnp.ndarray checked
        if array is None:
            return 0
        if cnp.PyArray_Check(array):
            checked = <cnp.ndarray>array
            if (cnp.PyArray_TYPE(checked) == self.type_number and cnp.PyArray_ISCARRAY_RO(checked)
                    and (not writes or cnp.PyArray_ISWRITEABLE(checked))
                    and cnp.PyArray_SIZE(checked) == parts * rows * columns):
                return 0
        error = ValueError if cnp.PyArray_Check(array) else TypeError
        raise error(f"{name} is {describe(array)}, wanted a C-contiguous {'writeable ' if writes else ''}{self.dtype} "
                    f"array of shape {(parts, rows, columns)}")

    cdef int check_states(self, h, c, int64_t num_rows, bint writes) except -1:
        cdef int64_t count = self.num_layers * self.num_directions
        self.check_block(h, "h", count, num_rows, self.h_size, writes)
        self.check_block(c, "c", count, num_rows, self.hidden_size, writes)
        return 0

    cdef int check_vectors(self, arrays, str name, const fastrnn_batch *batch, const int64_t *indices,
                           const int64_t *step_offsets, int64_t width, bint writes) except -1:
        """Whether they are as set_view takes them, and hold every step of the batch."""
        cdef cnp.ndarray array
        cdef int64_t i, steps
        if isinstance(arrays, list):
            if batch.lengths == NULL or step_offsets != NULL or len(<list>arrays) != batch.num_rows:
                raise ValueError(f"{name} is a list of {len(<list>arrays)}, wanted {batch.num_rows} with their lengths")
            for i in range(batch.num_rows):
                one = (<list>arrays)[i if indices == NULL else indices[i]]
                check_array(one, name, self.dtype, self.type_number, 2, writes)
                array = <cnp.ndarray>one
                if (not cnp.PyArray_ISCARRAY_RO(array) or cnp.PyArray_DIM(array, 0) < batch.lengths[i]
                        or cnp.PyArray_DIM(array, 1) != width):
                    raise ValueError(f"{name} holds {describe(array)}, wanted ({batch.lengths[i]}, {width})")
            return 0
        check_array(arrays, name, self.dtype, self.type_number, 3 if step_offsets == NULL else 2, writes)
        array = <cnp.ndarray>arrays
        if step_offsets == NULL:
            if (cnp.PyArray_DIM(array, 0) != batch.num_rows or cnp.PyArray_DIM(array, 1) < batch.num_steps
                    or cnp.PyArray_DIM(array, 2) != width):
                raise ValueError(f"{name} is {describe(array)}, wanted ({batch.num_rows}, {batch.num_steps}, {width})")
            return 0
        steps = cnp.PyArray_DIM(array, 0)
        if not cnp.PyArray_ISCARRAY_RO(array) or cnp.PyArray_DIM(array, 1) != width:
            raise ValueError(f"{name} is {describe(array)}, wanted C-contiguous (N, {width})")
        for i in range(batch.num_steps):
            if not 0 <= batch.batch_sizes[i] <= steps or not 0 <= step_offsets[i] <= steps - batch.batch_sizes[i]:
                raise ValueError(f"step_offsets[{i}] is {step_offsets[i]}, but {name} has {steps} steps")
        return 0

    cdef Workspace borrow(self, const fastrnn_batch *batch):
        cdef size_t size
        raise_status(fastrnn_workspace_size(self.layer, batch, &size))
        cdef Workspace workspace = self.spare.pop() if self.spare else Workspace()
        workspace.reserve(size)
        return workspace

    cdef void give_back(self, Workspace workspace):
        if workspace.size <= KEPT_BYTES and len(self.spare) < 4:
            self.spare.append(workspace)

    def run(self, x, y, schedule, h0, c0, hn, cn, Unrolled plan=None, past_end=None):
        """Run a batch. schedule: None for equal lengths in the given order, else (lengths in run order,
        batch_sizes, sorted_indices or None for the given order, step_offsets of packed data or None).
        past_end: None, or what to write to y (B, T, D*P) past the rows' ends."""
        cdef fastrnn_batch batch
        cdef fastrnn_boundary boundary
        cdef fastrnn_status status
        cdef Pool pool = shared_pool
        cdef const int64_t *offsets = NULL
        cdef const int64_t *data_indices
        cdef void **rows = NULL
        cdef int64_t row
        if plan is not None and plan.owner is not self:
            raise ValueError("plan is of another layer")
        boundary.indices = NULL
        batch.slots = NULL
        if schedule is None:
            check_array(x, "x", self.dtype, self.type_number, 3, False)
            batch.num_rows, batch.num_steps = cnp.PyArray_DIM(<cnp.ndarray>x, 0), cnp.PyArray_DIM(<cnp.ndarray>x, 1)
            batch.lengths = batch.batch_sizes = NULL
        else:
            lengths, batch_sizes, indices, step_offsets = schedule
            batch.num_rows, batch.num_steps = count_of(lengths, "lengths"), count_of(batch_sizes, "batch_sizes")
            batch.lengths = integers(lengths, "lengths", batch.num_rows)
            batch.batch_sizes = integers(batch_sizes, "batch_sizes", batch.num_steps)
            boundary.indices = integers(indices, "indices", batch.num_rows)
            offsets = integers(step_offsets, "step_offsets", batch.num_steps)
            if boundary.indices != NULL:
                for row in range(batch.num_rows):
                    if not 0 <= boundary.indices[row] < batch.num_rows:
                        raise ValueError(f"indices[{row}] is {boundary.indices[row]}, wanted 0 to {batch.num_rows - 1}")
        data_indices = boundary.indices if offsets == NULL else NULL
        self.check_vectors(x, "x", &batch, data_indices, offsets, self.input_size, False)
        self.check_vectors(y, "y", &batch, data_indices, offsets, self.num_directions * self.h_size, True)
        self.check_states(h0, c0, batch.num_rows, False)
        self.check_states(hn, cn, batch.num_rows, True)
        batch.past_end = FASTRNN_PAST_END_NOTHING
        batch.padded_steps = 0
        if past_end is not None:
            if isinstance(y, list) or offsets != NULL:
                raise ValueError("past_end is given, but only y (B, T, D*P) has steps past a row's end")
            batch.past_end = PAST_ENDS[past_end]
            batch.padded_steps = cnp.PyArray_DIM(<cnp.ndarray>y, 1)
        batch.pool = pool.pool
        cdef Workspace workspace = self.borrow(&batch)
        try:
            if data_indices != NULL or isinstance(x, list):
                rows = <void **>PyMem_RawMalloc(2 * (batch.num_rows + 1) * sizeof(void *))
                if rows == NULL:
                    raise MemoryError(f"no memory for {batch.num_rows} row pointers")
            set_view(&batch.x, x, data_indices, rows, offsets)
            set_view(&batch.y, y, data_indices, rows + batch.num_rows if rows != NULL else NULL, offsets)
            boundary.h0, boundary.c0 = address(h0), address(c0)
            boundary.hn, boundary.cn = <void *>address(hn), <void *>address(cn)
            batch.interrupted = check_signals
            batch.interrupted_context = NULL
            with nogil:
                if plan is not None:
                    status = fastrnn_unrolled_run(plan.plan, &batch, &boundary, workspace.memory)
                else:
                    status = fastrnn_run(self.layer, &batch, &boundary, workspace.memory)
            raise_status(status)
        finally:
            PyMem_RawFree(rows)
            self.give_back(workspace)


cdef class Unrolled:
    """A plan for exactly num_steps steps."""
    cdef fastrnn_unrolled *plan
    cdef Layer owner
    cdef readonly int64_t num_steps

    def __cinit__(self, Layer layer not None, int64_t num_steps):
        self.owner = layer
        self.num_steps = num_steps
        raise_status(fastrnn_unrolled_create(layer.layer, num_steps, &self.plan))

    def __dealloc__(self):
        fastrnn_unrolled_destroy(self.plan)


cdef object SAFE = "safe"


cdef void *aligned(void *block) noexcept nogil:
    return <void *>((<uintptr_t>block + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT)


cdef class Stream:
    """The state of a live batch between calls."""
    cdef Layer layer
    cdef readonly int64_t batch_size
    cdef void *block  # the state's allocation; `state` is its aligned part
    cdef void *state
    cdef size_t size
    cdef Workspace workspace
    cdef int64_t num_steps  # of the calls that the workspace is for
    cdef int64_t pool_number  # of the pool that it is for
    cdef bint is_long, is_short  # such calls
    cdef bint busy

    def __cinit__(self, Layer layer not None, int64_t batch_size):
        self.layer = layer
        self.batch_size = batch_size
        raise_status(fastrnn_stream_size(layer.layer, batch_size, &self.size))
        self.block = PyMem_RawMalloc(self.size + ALIGNMENT)
        if self.block == NULL:
            raise MemoryError(f"no memory for a stream's state of {self.size} bytes")
        self.state = aligned(self.block)
        self.workspace = Workspace()
        self.num_steps = -1
        self.set_state(None, None)

    def __dealloc__(self):
        PyMem_RawFree(self.block)

    def set_state(self, cnp.ndarray h, cnp.ndarray c):
        cdef fastrnn_boundary boundary
        self.layer.check_states(h, c, self.batch_size, False)
        self.claim()
        boundary.h0, boundary.c0 = address(h), address(c)
        boundary.hn = boundary.cn = NULL
        boundary.indices = NULL
        status = fastrnn_stream_set(self.layer.layer, self.batch_size, self.state, &boundary)
        self.busy = False
        raise_status(status)

    def get_state(self, cnp.ndarray h, cnp.ndarray c):
        cdef fastrnn_boundary boundary
        self.layer.check_states(h, c, self.batch_size, True)
        self.claim()
        boundary.h0 = boundary.c0 = NULL
        boundary.hn, boundary.cn = <void *>address(h), <void *>address(c)
        boundary.indices = NULL
        status = fastrnn_stream_get(self.layer.layer, self.batch_size, self.state, &boundary)
        self.busy = False
        raise_status(status)

    def reset_rows(self, rows):
        cdef fastrnn_boundary boundary
        cdef cnp.ndarray slots = self.take_rows(rows)
        boundary.h0 = boundary.c0 = boundary.hn = boundary.cn = NULL
        boundary.indices = NULL
        self.claim()
        status = fastrnn_stream_set_slots(self.layer.layer, cnp.PyArray_DIM(slots, 0),
                                          <const int64_t *>cnp.PyArray_DATA(slots), self.state, &boundary)
        self.busy = False
        self.raise_rows(status, slots)

    cdef cnp.ndarray take_rows(self, rows):
        """A copy of a caller's numbers of rows, as int64."""
        cdef cnp.ndarray array, slots
        cdef const int64_t *numbers
        cdef int64_t i
        array = as_array(rows, "rows")
        if cnp.PyArray_NDIM(array) == 0 and cnp.PyArray_TYPE(array) == cnp.NPY_OBJECT:
            raise TypeError(f"rows is {type(rows).__name__}, wanted a list or array of integers")
        if cnp.PyArray_NDIM(array) != 1:
            raise ValueError(f"rows has shape {(<object>array).shape}, wanted one dimension")
        if not cnp.PyArray_ISINTEGER(array) and cnp.PyArray_SIZE(array):
            raise TypeError(f"rows is of type {(<object>array).dtype}, wanted integers")
        slots = array.astype(np.int64)  # numbers that int64 does not hold become negative
        numbers = <const int64_t *>cnp.PyArray_DATA(slots)
        for i in range(cnp.PyArray_DIM(slots, 0)):
            if not 0 <= numbers[i] < self.batch_size:
                raise ValueError(f"rows[{i}] is {array[i]}, but the stream has {self.batch_size} rows")
        return slots

    cdef int raise_rows(self, fastrnn_status status, cnp.ndarray slots) except -1:
        """As raise_status, for rows in range: what the core refuses is a row that is named twice."""
        if status == FASTRNN_ERROR_ARGUMENT and slots is not None:
            seen = set()
            for number in slots.tolist():
                if number in seen:
                    raise ValueError(f"rows names row {number} twice, wanted each row once")
                seen.add(number)
        return raise_status(status)

    cdef int claim(self) except -1:
        if self.busy:
            raise RuntimeError("the stream is in use by another thread; a stream has one owner")
        self.busy = True
        return 0

    cdef void *copy_state(self) except NULL:
        """A block with a copy of the state, which takes a while if it is large."""
        cdef void *block = PyMem_RawMalloc(self.size + ALIGNMENT)
        cdef size_t done = 0, piece
        cdef bint stops = False
        if block == NULL:
            raise MemoryError(f"no memory for {self.size} bytes of state")
        cdef char *to = <char *>aligned(block)
        with nogil:
            while done < self.size and not stops:
                piece = min(<size_t>COPY_BYTES, self.size - done)
                memcpy(to + done, <char *>self.state + done, piece)
                done += piece
                stops = done < self.size and check_signals(NULL) != 0
        if stops:
            PyMem_RawFree(block)
            pending_exception()
        return block

    cdef int run_without_gil(self, fastrnn_batch *batch, cnp.ndarray slots) except -1:
        cdef fastrnn_status status
        cdef Pool pool = shared_pool  # which another thread may replace
        cdef void *copy = NULL  # an interrupted call leaves the state as it was: a long one advances a copy
        cdef void *state = self.state
        batch.pool = pool.pool
        if self.is_long:
            if batch.slots == NULL:  # the core keeps the state of named rows by itself
                copy = self.copy_state()
                state = aligned(copy)
            batch.interrupted = check_signals
            batch.interrupted_context = NULL
        with nogil:
            status = fastrnn_stream_run(self.layer.layer, batch, state, self.workspace.memory)
        if batch.num_steps > 1 and self.workspace.size > KEPT_BYTES:
            self.workspace = Workspace()
            self.num_steps = -1
        if copy != NULL and status == FASTRNN_OK:
            PyMem_RawFree(self.block)
            self.block, self.state = copy, state
        else:
            PyMem_RawFree(copy)
        self.raise_rows(status, slots)
        return 0

    cdef int advance(self, cnp.ndarray x, cnp.ndarray y, int64_t num_steps, bint steps_axis, cnp.ndarray slots) except -1:
        """x (B, I) or, with steps_axis, (B, T, I); both C-contiguous. slots: the rows' numbers, or None for all."""
        cdef fastrnn_batch batch
        cdef size_t size
        cdef int64_t width = self.layer.h_size
        cdef double work, rows
        self.claim()
        try:
            batch.num_rows, batch.num_steps = cnp.PyArray_DIM(x, 0), num_steps
            batch.lengths = batch.batch_sizes = NULL
            batch.slots = NULL if slots is None else <const int64_t *>cnp.PyArray_DATA(slots)
            batch.pool = shared_pool.pool
            if num_steps != self.num_steps or batch.slots != NULL or shared_pool.number != self.pool_number:
                self.num_steps = -1
                raise_status(fastrnn_workspace_size(self.layer.layer, &batch, &size))
                self.workspace.reserve(size)
                # a gate's multiply-adds
                work = <double>self.layer.hidden_size * (self.layer.input_size + self.layer.hidden_size)
                rows = <double>num_steps * batch.num_rows * self.layer.num_layers
                self.is_long = rows * (work + ROW_WORK) >= LONG_WORK
                self.is_short = rows * work < SHORT_WORK
                if batch.slots == NULL:
                    self.num_steps, self.pool_number = num_steps, shared_pool.number
            batch.x = fastrnn_view(cnp.PyArray_DATA(x), NULL, NULL, self.layer.input_size, self.layer.input_size)
            batch.y = fastrnn_view(cnp.PyArray_DATA(y), NULL, NULL, width, width)
            batch.past_end = FASTRNN_PAST_END_NOTHING
            batch.interrupted = NULL
            if steps_axis:
                batch.x.row_stride *= num_steps
                batch.y.row_stride *= num_steps
            if self.is_short:
                self.raise_rows(fastrnn_stream_run(self.layer.layer, &batch, self.state, self.workspace.memory), slots)
            else:
                self.run_without_gil(&batch, slots)
        finally:
            self.busy = False
        return 0

    def step(self, x, rows=None, *, casting="safe"):
        """One step of every row, or of the named ones.

        Parameters
        ----------
        x : (B, I) array; with rows (R, I), in the order of `rows`
        rows : (R,) integers, numbers of rows from 0 to B-1, each once, in any order; None: all
            The other rows keep their states, and take no part in the cost.
        casting : which conversions of x to the layer's dtype are allowed, in NumPy's words; see the layer

        Returns
        -------
        (B, P) or (R, P) array

        Raises
        ------
        TypeError, ValueError
            x or rows does not fit, or x must not be converted; the message says which, what was found and what was
            wanted, and the stream's state is unchanged.
        RuntimeError
            Another thread is in a call of this stream.

        Examples
        --------
        >>> import numpy as np, fastrnn
        >>> weights = {"weight_ih_l0": np.eye(1, 2, dtype="f4"), "weight_hh_l0": np.eye(1, dtype="f4")}
        >>> stream = fastrnn.RNN.from_state_dict(weights, nonlinearity="relu").stream(batch_size=3)
        >>> stream.step(np.ones((3, 2), "f4")).ravel()
        array([1., 1., 1.], dtype=float32)
        >>> stream.step(np.ones((2, 2), "f4"), rows=[2, 0]).ravel()
        array([2., 2.], dtype=float32)
        >>> stream.state.ravel()
        array([2., 1., 2.], dtype=float32)
        """
        cdef cnp.npy_intp shape[2]
        cdef cnp.ndarray slots = None
        shape[0], shape[1] = self.batch_size, self.layer.h_size
        if rows is not None:
            slots = self.take_rows(rows)
            shape[0] = cnp.PyArray_DIM(slots, 0)
        if not cnp.PyArray_Check(x) or cnp.PyArray_TYPE(<cnp.ndarray>x) != self.layer.type_number or casting is not SAFE:
            x = as_floats(x, "x", self.layer.dtype, check_casting(casting))
        cdef cnp.ndarray array = <cnp.ndarray>x
        if (cnp.PyArray_NDIM(array) != 2 or cnp.PyArray_DIM(array, 0) != shape[0]
                or cnp.PyArray_DIM(array, 1) != self.layer.input_size):
            raise ValueError(f"x has shape {x.shape}, wanted {(shape[0], self.layer.input_size)}")
        if not cnp.PyArray_ISCARRAY_RO(array):
            array = np.array(array, self.layer.dtype, order="C")
        cdef cnp.ndarray y = cnp.PyArray_SimpleNew(2, shape, self.layer.type_number)
        self.advance(array, y, 1, False, slots)
        return y

    def run(self, x, rows=None, *, casting="safe"):
        """Several steps of every row, or of the named ones: the same bits as one step at a time.

        Parameters
        ----------
        x : (B, T, I) array; with rows (R, T, I), in the order of `rows`
        rows : (R,) integers, as in :meth:`step`
        casting : which conversions of x to the layer's dtype are allowed, in NumPy's words; see the layer

        Returns
        -------
        (B, T, P) or (R, T, P) array

        Raises
        ------
        TypeError, ValueError
            x or rows does not fit, or x must not be converted; the stream's state is unchanged.
        RuntimeError
            Another thread is in a call of this stream.
        KeyboardInterrupt
            Ctrl-C, between two steps; the stream's state is unchanged.

        Examples
        --------
        >>> import numpy as np, fastrnn
        >>> weights = {"weight_ih_l0": np.eye(1, 2, dtype="f4"), "weight_hh_l0": np.eye(1, dtype="f4")}
        >>> stream = fastrnn.RNN.from_state_dict(weights, nonlinearity="relu").stream(batch_size=2)
        >>> stream.run(np.ones((2, 3, 2), "f4"))[0].ravel()
        array([1., 2., 3.], dtype=float32)
        >>> stream.run(np.ones((1, 2, 2), "f4"), rows=[1])[0].ravel()
        array([4., 5.], dtype=float32)
        """
        cdef cnp.ndarray slots = None if rows is None else self.take_rows(rows)
        count = self.batch_size if slots is None else cnp.PyArray_DIM(slots, 0)
        x = as_floats(x, "x", self.layer.dtype, check_casting(casting))
        if x.ndim != 3 or x.shape[0] != count or x.shape[2] != self.layer.input_size:
            raise ValueError(f"x has shape {x.shape}, wanted ({count}, T, {self.layer.input_size})")
        x = np.require(x, self.layer.dtype, ["C", "A"])
        y = np.empty((count, x.shape[1], self.layer.h_size), self.layer.dtype)
        self.advance(x, y, x.shape[1], True, slots)
        return y

    def snapshot(self):
        """The state as bytes, for :meth:`restore`.

        They hold a fingerprint of the layer's options and weights, and the state in little-endian order, so that a
        stream of the same layer restores them anywhere: on another instruction set or machine, or after pickling.
        ``include/fastrnn.h`` has the format.

        Returns
        -------
        bytes
            32 and, for each row and layer, P (for an LSTM P + H) numbers of the layer's dtype.
        """
        cdef size_t size
        self.claim()
        try:
            raise_status(fastrnn_stream_snapshot_size(self.layer.layer, self.batch_size, &size))
            snapshot = PyBytes_FromStringAndSize(NULL, size)
            raise_status(fastrnn_stream_snapshot(self.layer.layer, self.batch_size, self.state, PyBytes_AS_STRING(snapshot)))
            return snapshot
        finally:
            self.busy = False

    def restore(self, bytes snapshot not None):
        """Restore a snapshot of this stream, or of any stream with as many rows and the same weights and options.

        Raises
        ------
        ValueError
            The bytes are no snapshot, or one of another layer or number of rows; the stream's state is unchanged.

        Examples
        --------
        >>> import numpy as np, fastrnn
        >>> weights = {"weight_ih_l0": np.eye(3, 2, dtype="f4"), "weight_hh_l0": np.eye(3, 1, dtype="f4")}
        >>> layer = fastrnn.GRU.from_state_dict(weights)
        >>> stream, other = layer.stream(), layer.stream()
        >>> y = stream.step(np.ones((1, 2), "f4"))
        >>> other.restore(stream.snapshot())
        >>> other.state == stream.state
        array([[[ True]]])
        """
        cdef const char *content = snapshot
        cdef size_t size = len(snapshot), wanted
        cdef fastrnn_snapshot_info info
        info.struct_size = sizeof(fastrnn_snapshot_info)
        self.claim()
        status = fastrnn_stream_restore(self.layer.layer, self.batch_size, self.state, content, size)
        self.busy = False
        if status != FASTRNN_ERROR_SNAPSHOT:
            raise_status(status)
            return
        if fastrnn_snapshot_describe(content, size, &info) != FASTRNN_OK:
            raise ValueError(f"snapshot is {size} bytes and not a snapshot, wanted bytes that snapshot() returned")
        fingerprint = fastrnn_layer_fingerprint(self.layer.layer)
        if info.version != 1:
            raise ValueError(f"snapshot is of format version {info.version}, wanted 1")
        if info.fingerprint != fingerprint or info.real_size != self.layer.dtype.itemsize:
            raise ValueError(f"snapshot is of a layer with other options or weights: its fingerprint is "
                             f"{info.fingerprint:016x}, wanted {fingerprint:016x}")
        if info.num_rows != self.batch_size:
            raise ValueError(f"snapshot is of {info.num_rows} rows, wanted {self.batch_size}")
        raise_status(fastrnn_stream_snapshot_size(self.layer.layer, self.batch_size, &wanted))
        raise ValueError(f"snapshot has {size} bytes, wanted {wanted}")
