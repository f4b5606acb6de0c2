# PyTorch's tensors: whether they have changed, and runs on them. They are read by their attributes or by DLPack's C functions,
# so that nothing here imports PyTorch.

cdef extern from "Python.h":
    void PyErr_Clear()

# DLPack 1.3: https://dmlc.github.io/dlpack/latest/c_api.html. Of the functions that frameworks offer to each other only one is
# used here.
DEF DLPACK_MAJOR = 1
DEF DLPACK_CPU = 1
DEF DLPACK_FLOAT = 2

ctypedef struct DLTensor:
    char *data
    int32_t device_type, device_id
    int32_t ndim
    uint8_t type_code, type_bits
    uint16_t type_lanes
    int64_t *shape
    int64_t *strides  # in elements; NULL: they are adjacent
    uint64_t byte_offset

ctypedef struct DLPackFunctions:
    uint32_t major, minor
    void *older
    void *allocate
    void *from_object
    void *to_object
    int (*describe)(void *tensor, DLTensor *described) noexcept  # not 0: a Python exception is set
    void *current_stream

cdef const DLPackFunctions *dlpack = NULL


def use_dlpack(capsule):
    """Read tensors by the functions of ``torch.Tensor.__dlpack_c_exchange_api__``; None: by their attributes, which takes longer."""
    global dlpack
    cdef const DLPackFunctions *functions = NULL
    if capsule is not None:
        functions = <const DLPackFunctions *>PyCapsule_GetPointer(capsule, "dlpack_exchange_api")
        if functions.major != DLPACK_MAJOR or functions.describe == NULL:
            functions = NULL
    dlpack = functions


cdef bint describe_tensor(tensor, DLTensor *described) noexcept:
    """False if the tensor has no memory of its own."""
    if dlpack.describe(<void *>tensor, described) == 0:
        return True
    PyErr_Clear()
    return False


cdef bint are_adjacent(const DLTensor *tensor) noexcept:
    """Whether the elements are adjacent, in C's order."""
    cdef int64_t stride = 1
    cdef int axis
    if tensor.strides != NULL:
        for axis in range(tensor.ndim - 1, -1, -1):
            if tensor.shape[axis] != 1 and tensor.strides[axis] != stride:
                return False
            stride *= tensor.shape[axis]
    return True


cdef class TensorVersions:
    """Tensors as they were: which objects, their memory, their version counters.

    A version counter counts the writes in place that PyTorch sees. Tensors without one, which were made in inference mode,
    always seem to have changed.
    """
    cdef list sources  # the tensors, or weak references to them
    cdef int64_t *marks  # of each tensor: address, version, whether its elements are adjacent
    cdef bint has_versions, is_weak

    def __cinit__(self, list tensors not None, bint weak=False):
        cdef Py_ssize_t i
        self.is_weak = weak
        self.sources = [weakref.ref(tensor) if weak else tensor for tensor in tensors]
        self.has_versions = not any([tensor.is_inference() for tensor in tensors])
        self.marks = <int64_t *>PyMem_RawMalloc(3 * (len(tensors) + 1) * sizeof(int64_t))
        if self.marks == NULL:
            raise MemoryError(f"no memory for the versions of {len(tensors)} tensors")
        for i in range(len(tensors) if self.has_versions else 0):
            read_marks(tensors[i], self.marks + 3 * i)

    def __dealloc__(self):
        PyMem_RawFree(self.marks)

    def __len__(self):
        return len(self.sources)

    def source(self, Py_ssize_t i):
        """The i-th tensor itself; None if it is gone, or if it was written in place since or may have been."""
        if not 0 <= i < len(self.sources):
            raise IndexError(i)
        source = self.sources[i]() if self.is_weak else self.sources[i]
        return source if self.has_versions and source is not None and source._version == self.marks[3 * i + 1] else None

    def match(self, list tensors not None):
        """Whether these are the same tensors, unchanged."""
        cdef Py_ssize_t i
        if len(tensors) != len(self.sources):
            return False
        for i in range(len(tensors)):
            if not self.matches(i, tensors[i]):
                return False
        return True

    cdef bint matches(self, Py_ssize_t i, tensor) except -1:
        cdef int64_t marks[3]
        source = self.sources[i]() if self.is_weak else self.sources[i]
        if not self.has_versions or tensor is None or source is not tensor:
            return False
        try:
            read_marks(tensor, marks)
        except RuntimeError:  # its data was replaced by an inference tensor's
            return False
        return memcmp(marks, self.marks + 3 * i, sizeof(marks)) == 0


cdef int read_marks(tensor, int64_t *marks) except -1:
    cdef DLTensor described
    marks[1] = tensor._version
    if dlpack != NULL and describe_tensor(tensor, &described):
        marks[0], marks[2] = <int64_t>(described.data + described.byte_offset), are_adjacent(&described)
    else:
        marks[0], marks[2] = tensor.data_ptr(), tensor.is_contiguous()
    return 0


cdef class TensorCall:
    """What calls of one shape need, kept for the next one. It belongs to one call at a time."""
    cdef fastrnn_batch batch
    cdef Layer layer
    cdef Pool pool
    cdef bint is_short, has_state, batch_first

    def __cinit__(self, Layer layer not None, int64_t num_rows, int64_t num_steps, bint batch_first, bint has_state,
                  Pool pool not None):
        cdef fastrnn_batch *batch = &self.batch
        # multiply-adds of a gate
        cdef double work = <double>layer.hidden_size * (layer.input_size + layer.hidden_size) * layer.num_layers
        work *= <double>num_rows * num_steps * layer.num_directions
        self.layer, self.pool, self.batch_first, self.has_state = layer, pool, batch_first, has_state
        batch.struct_size = sizeof(fastrnn_batch)
        batch.num_rows, batch.num_steps = num_rows, num_steps
        set_strides(&batch.x, num_rows, num_steps, layer.input_size, batch_first)
        set_strides(&batch.y, num_rows, num_steps, layer.num_directions * layer.h_size, batch_first)
        batch.pool = pool.pool
        self.is_short = work < SHORT_WORK
        if work >= LONG_WORK:
            batch.interrupted = check_signals

    cdef bint fits(self, int64_t num_rows, int64_t num_steps, bint batch_first, bint has_state, Pool pool):
        return (self.batch.num_rows == num_rows and self.batch.num_steps == num_steps and self.batch_first == batch_first
                and self.has_state == has_state and self.pool is pool)

    cdef size_t size(self):
        """The bytes of its memory."""
        return 0


cdef void set_strides(fastrnn_view *view, int64_t num_rows, int64_t num_steps, int64_t width, bint batch_first) noexcept:
    view.row_stride = num_steps * width if batch_first else width
    view.step_stride = width if batch_first else num_rows * width


cdef class TensorPlan(TensorCall):
    """A plan of rows of equal length."""
    cdef fastrnn_plan plan
    cdef Workspace workspace

    cdef int run(self) except -1:
        """Run with the addresses in the batch."""
        cdef fastrnn_status status
        if self.workspace is None:
            self.plan.struct_size = sizeof(fastrnn_plan)
            raise_status(fastrnn_plan_make(self.layer.layer, &self.batch, &self.plan))
            workspace = Workspace()
            workspace.reserve(self.plan.workspace_size)
            self.workspace = workspace
        if self.is_short:
            status = fastrnn_plan_run(&self.plan, self.workspace.memory)
        else:
            with nogil:
                status = fastrnn_plan_run(&self.plan, self.workspace.memory)
        return raise_status(status)

    cdef size_t size(self):
        return self.workspace.size


cdef class TensorStep(TensorCall):
    """A prepared step of a cell, and a store of its own.

    Successive steps on a store read the weights in opposite directions, so each finds those in the cache that the one before
    it read last. Plans would begin with the same weights in every call.
    """
    cdef Workspace store_memory, step_memory
    cdef void *store
    cdef fastrnn_step *step

    cdef int run(self, const void *x, const void *h0, const void *c0, void *hn, void *cn) except -1:
        """One step; the states may be NULL: h0 and c0 for zeros, cn if the cell has none."""
        cdef fastrnn_status status
        if self.step == NULL:
            self.make()
        if self.is_short:
            status = self.run_step(x, h0, c0, hn, cn)
        else:
            with nogil:
                status = self.run_step(x, h0, c0, hn, cn)
        return raise_status(status)

    cdef int make(self) except -1:
        cdef const fastrnn_layer *layer = self.layer.layer
        cdef size_t size
        self.store_memory, self.step_memory = Workspace(), Workspace()
        raise_status(fastrnn_store_size(layer, self.batch.num_rows, 0, &size))
        self.store_memory.reserve(size + ALIGNMENT)
        self.store = <void *>((<uintptr_t>self.store_memory.memory + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT)
        raise_status(fastrnn_store_init(layer, self.batch.num_rows, 0, self.store))
        self.batch.store = self.store
        raise_status(fastrnn_step_size(layer, &self.batch, &size))
        self.step_memory.reserve(size)
        raise_status(fastrnn_step_prepare(layer, &self.batch, 0, self.step_memory.memory, size, &self.step))
        return 0

    cdef fastrnn_status run_step(self, const void *x, const void *h0, const void *c0, void *hn, void *cn) noexcept nogil:
        cdef const fastrnn_layer *layer = self.layer.layer
        cdef fastrnn_status status = fastrnn_store_set(layer, self.store, self.batch.num_rows, NULL, h0, c0)
        if status == FASTRNN_OK:
            status = fastrnn_step_run(self.step, x, hn)  # h is the output
        if status == FASTRNN_OK and cn != NULL:
            status = fastrnn_store_get(layer, self.store, self.batch.num_rows, NULL, NULL, cn)
        return status

    cdef size_t size(self):
        return self.store_memory.size + self.step_memory.size


ctypedef struct TensorView:
    void *data
    int ndim
    int64_t shape[3]


cdef bint has_shape(const TensorView *view, int ndim, const int64_t *shape) noexcept:
    return view.ndim == ndim and memcmp(view.shape, shape, ndim * sizeof(int64_t)) == 0


cdef class TensorRunner:
    """Runs of a layer on tensors whose elements are adjacent.

    versions : of the weights that the layer was prepared from
    tensor_type, dtype, empty_like, get_num_threads : PyTorch's
    """
    cdef Layer layer
    cdef TensorVersions versions
    cdef object tensor_type, dtype, empty_like, get_num_threads
    cdef int bits  # of an element
    cdef list spare  # calls of earlier runs

    def __cinit__(self, Layer layer not None, TensorVersions versions not None, tensor_type, dtype, empty_like,
                  get_num_threads):
        self.layer, self.versions, self.spare, self.bits = layer, versions, [], 8 * layer.dtype.itemsize
        self.tensor_type, self.dtype = tensor_type, dtype
        self.empty_like, self.get_num_threads = empty_like, get_num_threads

    cdef bint read(self, tensor, TensorView *view) except -1:
        """Whether it is a tensor on the CPU of the layer's dtype, with at least one element and with memory of its own, whose
        elements are adjacent; then the view is filled."""
        cdef DLTensor described
        cdef int axis
        if type(tensor) is not self.tensor_type:
            return False
        if dlpack != NULL:
            if (not describe_tensor(tensor, &described) or described.device_type != DLPACK_CPU
                    or described.type_code != DLPACK_FLOAT or described.type_bits != self.bits
                    or described.type_lanes != 1 or described.ndim > 3 or not are_adjacent(&described)):
                return False
            view.data, view.ndim = described.data + described.byte_offset, described.ndim
            for axis in range(view.ndim):
                view.shape[axis] = described.shape[axis]
        else:
            try:
                if tensor.dtype is not self.dtype or not tensor.is_cpu or tensor.dim() > 3 or not tensor.is_contiguous():
                    return False
                view.data, view.ndim = <void *><uintptr_t>tensor.data_ptr(), tensor.dim()
                for axis, size in enumerate(tensor.shape):
                    view.shape[axis] = size
            except RuntimeError:  # it has no memory of its own
                return False
        for axis in range(view.ndim):
            if view.shape[axis] == 0:
                return False
        return not tensor.is_neg()

    cdef void *address_of_new(self, tensor) except NULL:
        """The address of a tensor that PyTorch has just made like one that `read` took."""
        cdef TensorView view
        if not self.read(tensor, &view):
            raise TypeError(f"a new tensor is a {type(tensor).__name__} of another kind than the input")
        return view.data

    cdef bint has_weights(self, dict weights, names) except -1:
        cdef Py_ssize_t i = 0
        for name in names:
            if i == len(self.versions.sources) or not self.versions.matches(i, weights.get(name)):
                return False
            i += 1
        return i == len(self.versions.sources)

    cdef bint read_states(self, hx, int ndim, int64_t *shape, TensorView *h, TensorView *c) except -1:
        """Whether an initial state is of this shape; but the last axis is set here."""
        shape[ndim - 1] = self.layer.h_size
        if not self.layer.is_lstm:
            return self.read(hx, h) and has_shape(h, ndim, shape)
        if type(hx) is not tuple or len(<tuple>hx) != 2 or not self.read((<tuple>hx)[0], h) or not has_shape(h, ndim, shape):
            return False
        shape[ndim - 1] = self.layer.hidden_size
        return self.read((<tuple>hx)[1], c) and has_shape(c, ndim, shape)

    cdef new_states(self, x, hx, int num_axes, const int64_t *sizes):
        """New tensors like the initial states, or whose axes but the last have these sizes."""
        cdef Layer layer = self.layer
        if hx is None:
            shape = tuple([sizes[axis] for axis in range(num_axes)])
            hn = x.new_empty(shape + (layer.h_size,))
            return (hn, x.new_empty(shape + (layer.hidden_size,))) if layer.is_lstm else hn
        return (self.empty_like((<tuple>hx)[0]), self.empty_like((<tuple>hx)[1])) if layer.is_lstm else self.empty_like(hx)

    def run_cell(self, dict weights not None, names, x, hx, int num_threads):
        """Run what PyTorch's cell of these weights would, if that is as simple as usual.

        weights, names : the module's tensors by their names, and which of them are its weights
        x, hx : the module's input and initial state
        num_threads : 0 for PyTorch's number

        Returns
        -------
        What the module returns; None, with nothing done, if the weights have changed, if x or hx does not fit, or if one of
        their tensors is not what `read` takes.
        """
        cdef TensorView x_view, h, c
        cdef TensorStep call = None
        cdef bint is_lstm = self.layer.is_lstm
        cdef int64_t num_rows
        cdef int64_t shape[2]
        h.data = c.data = NULL
        if (not self.has_weights(weights, names) or not self.read(x, &x_view) or not 1 <= x_view.ndim <= 2
                or x_view.shape[x_view.ndim - 1] != self.layer.input_size):
            return None
        num_rows = shape[0] = x_view.shape[0] if x_view.ndim == 2 else 1
        if hx is not None and not self.read_states(hx, x_view.ndim, shape, &h, &c):
            return None
        last = self.new_states(x, hx, x_view.ndim - 1, shape)
        pool = pool_of(num_threads or self.get_num_threads())
        if self.spare:
            call = self.spare.pop()
        if call is None or not call.fits(num_rows, 1, True, h.data != NULL, pool):
            call = TensorStep(self.layer, num_rows, 1, True, h.data != NULL, pool)
        if is_lstm:
            call.run(x_view.data, h.data, c.data, self.address_of_new((<tuple>last)[0]), self.address_of_new((<tuple>last)[1]))
        else:
            call.run(x_view.data, h.data, NULL, self.address_of_new(last), NULL)
        self.keep(call)
        return last

    def run_sequence(self, dict weights not None, names, x, hx, bint batch_first, int num_threads):
        """Like `run_cell`, for PyTorch's other modules; x is (B, T, I) if batch_first, else (T, B, I), or (T, I)."""
        cdef TensorView x_view, h, c
        cdef TensorPlan call = None
        cdef bint is_lstm = self.layer.is_lstm
        cdef int64_t num_rows, num_steps
        cdef int64_t shape[3]
        h.data = c.data = NULL
        if (not self.has_weights(weights, names) or not self.read(x, &x_view) or not 2 <= x_view.ndim <= 3
                or x_view.shape[x_view.ndim - 1] != self.layer.input_size):
            return None
        shape[0] = self.layer.num_layers * self.layer.num_directions
        if x_view.ndim == 2:
            num_rows, num_steps, batch_first = 1, x_view.shape[0], True
        else:
            num_rows, num_steps = x_view.shape[not batch_first], x_view.shape[batch_first]
            shape[1] = num_rows
        if hx is not None and not self.read_states(hx, x_view.ndim, shape, &h, &c):
            return None
        last = self.new_states(x, hx, x_view.ndim - 1, shape)
        y = x.new_empty(x.shape[:x_view.ndim - 1] + (self.layer.num_directions * self.layer.h_size,))
        pool = pool_of(num_threads or self.get_num_threads())
        if self.spare:
            call = self.spare.pop()
        if call is None or not call.fits(num_rows, num_steps, batch_first, h.data != NULL, pool):
            call = TensorPlan(self.layer, num_rows, num_steps, batch_first, h.data != NULL, pool)
        call.batch.x.base, call.batch.y.base = x_view.data, self.address_of_new(y)
        call.batch.h0, call.batch.c0 = h.data, c.data
        call.batch.hn = self.address_of_new((<tuple>last)[0] if is_lstm else last)
        if is_lstm:
            call.batch.cn = self.address_of_new((<tuple>last)[1])
        call.run()
        self.keep(call)
        return y, last

    cdef int keep(self, TensorCall call) except -1:
        """Keep what a call needed for the next one."""
        if len(self.spare) < 4 and call.size() <= KEPT_BYTES:
            self.spare.append(call)
        return 0
