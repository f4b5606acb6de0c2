# cython: language_level=3, boundscheck=False, wraparound=False
"""The door to the C core: check, view, call without the GIL, status to exception."""

cimport numpy as cnp
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from cpython.pycapsule cimport PyCapsule_GetName, PyCapsule_GetPointer
from libc.stdint cimport int64_t, uintptr_t
from libc.string cimport memcpy

import sys

import numpy as np

from .arguments import as_array

cnp.import_array()

cdef extern from "Python.h":
    int PyErr_CheckSignals() noexcept

cdef extern from "fastrnn.h" nogil:
    ctypedef enum fastrnn_status:
        FASTRNN_OK
        FASTRNN_ERROR_MEMORY
        FASTRNN_ERROR_SIZE
        FASTRNN_ERROR_INTERRUPTED
    ctypedef enum fastrnn_kind:
        FASTRNN_LSTM
        FASTRNN_GRU
        FASTRNN_RNN
    ctypedef enum fastrnn_dtype:
        FASTRNN_FLOAT32
        FASTRNN_FLOAT64
    ctypedef enum fastrnn_activation_name:
        FASTRNN_SIGMOID
        FASTRNN_TANH
        FASTRNN_RELU
        FASTRNN_LINEAR
        FASTRNN_HARD_SIGMOID
        FASTRNN_LEAKY_RELU
        FASTRNN_ELU
        FASTRNN_SOFTSIGN
        FASTRNN_SOFTPLUS
        FASTRNN_AFFINE
        FASTRNN_SCALED_TANH
        FASTRNN_THRESHOLDED_RELU
    ctypedef struct fastrnn_activation:
        fastrnn_activation_name name
        double alpha
        double beta
    ctypedef struct fastrnn_config:
        fastrnn_kind kind
        fastrnn_dtype dtype
        int64_t input_size, hidden_size, proj_size, num_layers
        int bidirectional
    ctypedef struct fastrnn_cell:
        const void *weight_ih
        const void *weight_hh
        const void *bias_ih
        const void *bias_hh
        const void *weight_hr
        const void *peephole
        fastrnn_activation activations[5]
        double cell_clip, gate_clip, proj_clip
        int coupled, linear_before_reset
    ctypedef struct fastrnn_blas:
        void *sgemm
        void *dgemm
    ctypedef struct fastrnn_model
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
        int (*interrupted)(void *) noexcept
        void *interrupted_context
        fastrnn_pool *pool
    ctypedef struct fastrnn_boundary:
        const void *h0
        const void *c0
        void *hn
        void *cn
        const int64_t *indices
    const char *fastrnn_status_message(fastrnn_status)
    const char *fastrnn_version()
    const char *fastrnn_isa(size_t)
    fastrnn_status fastrnn_model_create(const fastrnn_config *, const fastrnn_cell *, const char *, const fastrnn_blas *,
                                        fastrnn_model **)
    void fastrnn_model_destroy(fastrnn_model *)
    const char *fastrnn_model_isa(const fastrnn_model *)
    size_t fastrnn_model_nbytes(const fastrnn_model *)
    fastrnn_status fastrnn_pool_create(int, fastrnn_pool **)
    void fastrnn_pool_destroy(fastrnn_pool *)
    void fastrnn_pool_set_threshold(fastrnn_pool *, double)
    fastrnn_status fastrnn_workspace_size(const fastrnn_model *, const fastrnn_batch *, size_t *)
    fastrnn_status fastrnn_run(const fastrnn_model *, const fastrnn_batch *, const fastrnn_boundary *, void *)
    fastrnn_status fastrnn_stream_size(const fastrnn_model *, int64_t, size_t *)
    fastrnn_status fastrnn_stream_set(const fastrnn_model *, int64_t, void *, const fastrnn_boundary *)
    fastrnn_status fastrnn_stream_get(const fastrnn_model *, int64_t, const void *, const fastrnn_boundary *)
    fastrnn_status fastrnn_stream_run(const fastrnn_model *, const fastrnn_batch *, void *, void *)
    fastrnn_status fastrnn_unrolled_create(const fastrnn_model *, int64_t, fastrnn_unrolled **)
    void fastrnn_unrolled_destroy(fastrnn_unrolled *)
    fastrnn_status fastrnn_unrolled_run(const fastrnn_unrolled *, const fastrnn_batch *, const fastrnn_boundary *, void *)
    fastrnn_status fastrnn_activate(const char *, fastrnn_activation, int64_t, const float *, float *)
    fastrnn_status fastrnn_probe_fma(const char *, int64_t, int64_t *, double *)
    fastrnn_status fastrnn_probe_read(const char *, int64_t, int64_t, const float *, double *)

__version__ = fastrnn_version().decode()

PAST_ENDS = {"zero": FASTRNN_PAST_END_ZERO, "carry": FASTRNN_PAST_END_CARRY}
KINDS = {"lstm": FASTRNN_LSTM, "gru": FASTRNN_GRU, "rnn": FASTRNN_RNN}
ACTIVATIONS = {
    "sigmoid": FASTRNN_SIGMOID, "tanh": FASTRNN_TANH, "relu": FASTRNN_RELU, "linear": FASTRNN_LINEAR,
    "hard_sigmoid": FASTRNN_HARD_SIGMOID, "leaky_relu": FASTRNN_LEAKY_RELU, "elu": FASTRNN_ELU,
    "softsign": FASTRNN_SOFTSIGN, "softplus": FASTRNN_SOFTPLUS, "affine": FASTRNN_AFFINE,
    "scaled_tanh": FASTRNN_SCALED_TANH, "thresholded_relu": FASTRNN_THRESHOLDED_RELU,
}

DEF ALIGNMENT = 64


cdef int check_signals(void *context) noexcept with gil:
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
        raise_status(fastrnn_activate(isa_name, activation, values.shape[0], &values[0], &out[0]))
    return y


def probe_fma(isa, rounds):
    """`rounds` rounds of multiply-adds in registers: how many they were, and the lanes' sum."""
    cdef bytes isa_name = isa.encode()
    cdef int64_t number = rounds, multiply_adds
    cdef double total
    cdef fastrnn_status status
    cdef const char *name = isa_name
    with nogil:
        status = fastrnn_probe_fma(name, number, &multiply_adds, &total)
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
        status = fastrnn_probe_read(name, number, view.shape[0], &view[0], &total)
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


cdef class Pool:
    """Threads for one call at a time."""
    cdef fastrnn_pool *pool
    cdef readonly int num_threads

    def __cinit__(self, int num_threads, double threshold):
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


cdef const int64_t *integers(array) noexcept:
    if array is None:
        return NULL
    return <const int64_t *>cnp.PyArray_DATA(<cnp.ndarray>array)


cdef class Model:
    """A prepared model. Arguments are checked by the Python layers; shapes are theirs to get right."""
    cdef fastrnn_model *model
    cdef readonly int64_t num_layers, hidden_size, output_size, num_directions, input_size
    cdef readonly bint is_lstm
    cdef readonly object dtype
    cdef int type_number
    cdef list spare  # workspaces of earlier calls

    def __cinit__(self, kind, dtype, int64_t input_size, int64_t hidden_size, int64_t proj_size, int64_t num_layers,
                  bint bidirectional, list cells, isa, bint use_blas):
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
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.output_size = proj_size or hidden_size
        self.num_directions = 2 if bidirectional else 1
        self.spare = []
        config.kind = KINDS[kind]
        config.dtype = FASTRNN_FLOAT32 if self.dtype == np.float32 else FASTRNN_FLOAT64
        config.input_size, config.hidden_size, config.proj_size = input_size, hidden_size, proj_size
        config.num_layers, config.bidirectional = num_layers, bidirectional
        if use_blas:
            load_blas()
        prepared = <fastrnn_cell *>PyMem_RawMalloc(len(cells) * sizeof(fastrnn_cell))
        if prepared == NULL:
            raise MemoryError("no memory for the model's description")
        try:
            for i, (arrays, activations, clips, coupled, linear_before_reset) in enumerate(cells):
                cell = &prepared[i]
                cell.weight_ih, cell.weight_hh = address(arrays[0]), address(arrays[1])
                cell.bias_ih, cell.bias_hh = address(arrays[2]), address(arrays[3])
                cell.weight_hr, cell.peephole = address(arrays[4]), address(arrays[5])
                for j in range(5):
                    name, alpha, beta = activations[j] if j < len(activations) else ("linear", 0.0, 0.0)
                    cell.activations[j] = fastrnn_activation(ACTIVATIONS[name], alpha, beta)
                cell.cell_clip, cell.gate_clip, cell.proj_clip = clips
                cell.coupled, cell.linear_before_reset = coupled, linear_before_reset
            with nogil:
                status = fastrnn_model_create(&config, prepared, isa_pointer, &blas if use_blas else NULL, &self.model)
            raise_status(status)
        finally:
            PyMem_RawFree(prepared)

    def __dealloc__(self):
        fastrnn_model_destroy(self.model)

    @property
    def isa(self):
        return fastrnn_model_isa(self.model).decode()

    @property
    def nbytes(self):
        return fastrnn_model_nbytes(self.model)

    cdef Workspace borrow(self, const fastrnn_batch *batch):
        cdef size_t size
        raise_status(fastrnn_workspace_size(self.model, batch, &size))
        cdef Workspace workspace = self.spare.pop() if self.spare else Workspace()
        workspace.reserve(size)
        return workspace

    cdef void give_back(self, Workspace workspace):
        if workspace.size <= 1 << 22 and len(self.spare) < 4:  # keep a few megabytes, not a rare giant
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
        boundary.indices = NULL
        batch.past_end = FASTRNN_PAST_END_NOTHING
        batch.padded_steps = 0
        if past_end is not None:
            batch.past_end = PAST_ENDS[past_end]
            batch.padded_steps = y.shape[1]
        if schedule is None:
            batch.num_rows, batch.num_steps = x.shape[0], x.shape[1]
            batch.lengths = batch.batch_sizes = NULL
        else:
            lengths, batch_sizes, indices, step_offsets = schedule
            batch.num_rows, batch.num_steps = len(lengths), len(batch_sizes)
            batch.lengths, batch.batch_sizes = integers(lengths), integers(batch_sizes)
            boundary.indices = integers(indices)
            offsets = integers(step_offsets)
        batch.pool = pool.pool
        cdef Workspace workspace = self.borrow(&batch)
        try:
            data_indices = boundary.indices if offsets == NULL else NULL
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
                    status = fastrnn_run(self.model, &batch, &boundary, workspace.memory)
            raise_status(status)
        finally:
            PyMem_RawFree(rows)
            self.give_back(workspace)


cdef class Unrolled:
    """A plan for exactly num_steps steps."""
    cdef fastrnn_unrolled *plan
    cdef Model owner
    cdef readonly int64_t num_steps

    def __cinit__(self, Model model not None, int64_t num_steps):
        self.owner = model
        self.num_steps = num_steps
        raise_status(fastrnn_unrolled_create(model.model, num_steps, &self.plan))

    def __dealloc__(self):
        fastrnn_unrolled_destroy(self.plan)


cdef class Stream:
    """The state of a live batch between calls."""
    cdef Model model
    cdef readonly int64_t batch_size
    cdef void *block  # the state's allocation; `state` is its aligned part
    cdef void *state
    cdef size_t size
    cdef Workspace workspace
    cdef int64_t num_steps  # of the calls that the workspace and the pool are for
    cdef Pool pool
    cdef bint busy

    def __cinit__(self, Model model not None, int64_t batch_size):
        self.model = model
        self.batch_size = batch_size
        raise_status(fastrnn_stream_size(model.model, batch_size, &self.size))
        self.block = PyMem_RawMalloc(self.size + ALIGNMENT)
        if self.block == NULL:
            raise MemoryError(f"no memory for a stream's state of {self.size} bytes")
        self.state = <void *>((<uintptr_t>self.block + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT)
        self.workspace = Workspace()
        self.num_steps = -1
        self.set_state(None, None)

    def __dealloc__(self):
        PyMem_RawFree(self.block)

    cdef int check_state(self, cnp.ndarray array, str name, int64_t width, bint writes) except -1:
        if array is not None and (cnp.PyArray_TYPE(array) != self.model.type_number or not cnp.PyArray_ISCARRAY_RO(array)
                                  or (writes and not cnp.PyArray_ISWRITEABLE(array))
                                  or cnp.PyArray_SIZE(array) != self.model.num_layers * self.batch_size * width):
            raise ValueError(f"{name} is {(<object>array).dtype} of shape {(<object>array).shape}, wanted a C-contiguous {self.model.dtype} "
                             f"array of shape ({self.model.num_layers}, {self.batch_size}, {width})")
        return 0

    def set_state(self, cnp.ndarray h, cnp.ndarray c):
        cdef fastrnn_boundary boundary
        self.check_state(h, "h", self.model.output_size, False)
        self.check_state(c, "c", self.model.hidden_size, False)
        self.claim()
        boundary.h0, boundary.c0 = address(h), address(c)
        boundary.hn = boundary.cn = NULL
        boundary.indices = NULL
        status = fastrnn_stream_set(self.model.model, self.batch_size, self.state, &boundary)
        self.busy = False
        raise_status(status)

    def get_state(self, cnp.ndarray h, cnp.ndarray c):
        cdef fastrnn_boundary boundary
        self.check_state(h, "h", self.model.output_size, True)
        self.check_state(c, "c", self.model.hidden_size, True)
        self.claim()
        boundary.h0 = boundary.c0 = NULL
        boundary.hn, boundary.cn = <void *>address(h), <void *>address(c)
        boundary.indices = NULL
        status = fastrnn_stream_get(self.model.model, self.batch_size, self.state, &boundary)
        self.busy = False
        raise_status(status)

    cdef int claim(self) except -1:
        if self.busy:
            raise RuntimeError("the stream is in use by another thread; a stream has one owner")
        self.busy = True
        return 0

    cdef int advance(self, cnp.ndarray x, cnp.ndarray y, int64_t num_steps, bint steps_axis) except -1:
        """x (B, I) or, with steps_axis, (B, T, I); both C-contiguous."""
        cdef fastrnn_batch batch
        cdef fastrnn_status status
        cdef size_t size
        cdef void *before = NULL
        cdef int64_t width = self.model.output_size
        cdef double work
        self.claim()
        try:
            batch.num_rows, batch.num_steps = self.batch_size, num_steps
            batch.lengths = batch.batch_sizes = NULL
            if num_steps != self.num_steps or self.pool is not shared_pool:
                self.num_steps = -1
                self.pool = shared_pool
                batch.pool = self.pool.pool
                raise_status(fastrnn_workspace_size(self.model.model, &batch, &size))
                self.workspace.reserve(size)
                self.num_steps = num_steps
            batch.pool = self.pool.pool
            batch.x = fastrnn_view(cnp.PyArray_DATA(x), NULL, NULL, self.model.input_size, self.model.input_size)
            batch.y = fastrnn_view(cnp.PyArray_DATA(y), NULL, NULL, width, width)
            batch.past_end = FASTRNN_PAST_END_NOTHING
            batch.interrupted = NULL
            if steps_axis:
                batch.x.row_stride *= num_steps
                batch.y.row_stride *= num_steps
            if num_steps > 1:
                before = PyMem_RawMalloc(self.size)  # an interrupted run leaves the state as it was
                if before == NULL:
                    raise MemoryError(f"no memory for {self.size} bytes of state")
                memcpy(before, self.state, self.size)
                batch.interrupted = check_signals
            work = <double>num_steps * self.batch_size * self.model.num_layers * self.model.hidden_size
            work *= self.model.input_size + self.model.hidden_size  # a gate's multiply-adds
            if work < 1 << 13:
                # some 2 us, shared with no other thread: giving the GIL away and waiting for it again could cost more
                status = fastrnn_stream_run(self.model.model, &batch, self.state, self.workspace.memory)
            else:
                with nogil:
                    status = fastrnn_stream_run(self.model.model, &batch, self.state, self.workspace.memory)
            if status != FASTRNN_OK and before != NULL:
                memcpy(self.state, before, self.size)
            raise_status(status)
        finally:
            PyMem_RawFree(before)
            self.busy = False
        return 0

    def step(self, x):
        """One step of every row.

        Parameters
        ----------
        x : (B, I) array of the layer's dtype

        Returns
        -------
        (B, P) array

        Raises
        ------
        TypeError, ValueError
            x has another dtype or shape; the stream's state is unchanged.
        """
        cdef cnp.npy_intp shape[2]
        if not cnp.PyArray_Check(x):
            x = as_array(x, "x")
        cdef cnp.ndarray array = <cnp.ndarray>x
        if cnp.PyArray_TYPE(array) != self.model.type_number:
            raise TypeError(f"x is {x.dtype}, wanted {self.model.dtype}")
        if (cnp.PyArray_NDIM(array) != 2 or cnp.PyArray_DIM(array, 0) != self.batch_size
                or cnp.PyArray_DIM(array, 1) != self.model.input_size):
            raise ValueError(f"x has shape {x.shape}, wanted {(self.batch_size, self.model.input_size)}")
        if not cnp.PyArray_ISCARRAY_RO(array):
            array = np.array(array, self.model.dtype, order="C")
        shape[0], shape[1] = self.batch_size, self.model.output_size
        cdef cnp.ndarray y = cnp.PyArray_EMPTY(2, shape, self.model.type_number, 0)
        self.advance(array, y, 1, False)
        return y

    def run(self, x):
        """Several steps of every row: the same bits as one step at a time.

        Parameters
        ----------
        x : (B, T, I) array of the layer's dtype

        Returns
        -------
        (B, T, P) array

        Raises
        ------
        TypeError, ValueError
            x has another dtype or shape; the stream's state is unchanged.
        """
        x = as_array(x, "x")
        if x.dtype.newbyteorder("=") != self.model.dtype:
            raise TypeError(f"x is {x.dtype}, wanted {self.model.dtype}")
        if x.ndim != 3 or x.shape[0] != self.batch_size or x.shape[2] != self.model.input_size:
            raise ValueError(f"x has shape {x.shape}, wanted ({self.batch_size}, T, {self.model.input_size})")
        x = np.require(x, self.model.dtype, ["C", "A"])
        y = np.empty((self.batch_size, x.shape[1], self.model.output_size), self.model.dtype)
        self.advance(x, y, x.shape[1], True)
        return y

    def snapshot(self):
        """The state as bytes, for :meth:`restore`."""
        self.claim()
        try:
            return (<char *>self.state)[:self.size]
        finally:
            self.busy = False

    def restore(self, bytes snapshot not None):
        """Go back to a snapshot of this stream, or of one alike.

        Raises
        ------
        ValueError
            The snapshot's size is not this stream's.
        """
        if <size_t>len(snapshot) != self.size:
            raise ValueError(f"snapshot has {len(snapshot)} bytes, wanted {self.size}: it is of another kind of stream")
        self.claim()
        memcpy(self.state, <const char *>snapshot, self.size)
        self.busy = False
