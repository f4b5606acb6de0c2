# PyTorch's tensors: whether they have changed, and single steps on them. They are read by their attributes and methods, so that
# nothing here imports PyTorch.

cdef class TensorVersions:
    """Tensors as they were: which objects, their memory, their version counters.

    A version counter counts the writes in place that PyTorch sees. Tensors without one, which were made in inference mode,
    never match.
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
        source = self.sources[i]
        if self.is_weak:
            source = source()
        if not self.has_versions or tensor is None or source is not tensor:
            return False
        try:
            read_marks(tensor, marks)
        except RuntimeError:  # its data was replaced by an inference tensor's
            return False
        return memcmp(marks, self.marks + 3 * i, sizeof(marks)) == 0


cdef int read_marks(tensor, int64_t *marks) except -1:
    marks[0], marks[1], marks[2] = tensor.data_ptr(), tensor._version, tensor.is_contiguous()
    return 0


cdef class StepPlan:
    """A plan of one step, kept for the next step of as many rows."""
    cdef fastrnn_batch batch
    cdef fastrnn_plan plan
    cdef Workspace workspace
    cdef Pool pool  # which the plan refers to
    cdef bint is_short, is_made

    def __cinit__(self, Layer layer not None, int64_t num_rows, Pool pool not None):
        cdef fastrnn_batch *batch = &self.batch
        cdef double work = <double>num_rows * layer.hidden_size * (layer.input_size + layer.hidden_size)
        batch.struct_size, self.plan.struct_size = sizeof(fastrnn_batch), sizeof(fastrnn_plan)
        batch.num_rows, batch.num_steps = num_rows, 1
        batch.x.step_stride = batch.x.row_stride = layer.input_size
        batch.y.step_stride = batch.y.row_stride = layer.h_size
        batch.pool = pool.pool
        self.is_short = work < SHORT_WORK
        if work >= LONG_WORK:
            batch.interrupted = check_signals
        self.workspace = Workspace()
        self.pool = pool


cdef class TensorStep:
    """Single steps of a layer of one cell, on tensors.

    layer : of one layer and one direction
    versions, names : of the weights that the layer was prepared from
    tensor_type, dtype, empty_like, get_num_threads : PyTorch's
    """
    cdef Layer layer
    cdef TensorVersions versions
    cdef tuple names
    cdef object tensor_type, dtype, empty_like, get_num_threads
    cdef list spare  # plans of earlier calls

    def __cinit__(self, Layer layer not None, TensorVersions versions not None, tuple names not None, tensor_type, dtype,
                  empty_like, get_num_threads):
        if layer.num_layers * layer.num_directions != 1:
            raise ValueError(f"layer has {layer.num_layers} layers and {layer.num_directions} directions, wanted one cell")
        if len(names) != len(versions.sources):
            raise ValueError(f"names has {len(names)} entries, wanted {len(versions.sources)}")
        self.layer, self.versions, self.names = layer, versions, names
        self.tensor_type, self.dtype, self.empty_like = tensor_type, dtype, empty_like
        self.get_num_threads = get_num_threads
        self.spare = []

    cdef void *data(self, tensor, Py_ssize_t ndim, int64_t num_rows, int64_t width) except? NULL:
        """The address of a tensor that is C-contiguous on the CPU, of the layer's dtype and this shape; NULL if it is not."""
        if type(tensor) is not self.tensor_type or tensor.dtype is not self.dtype or not tensor.is_cpu:
            return NULL
        cdef tuple shape = <tuple>tensor.shape  # a subclass of tuple
        if len(shape) != ndim or <int64_t>shape[ndim - 1] != width or (ndim == 2 and <int64_t>shape[0] != num_rows):
            return NULL
        if not tensor.is_contiguous() or tensor.is_neg():
            return NULL
        return <void *><uintptr_t>tensor.data_ptr()

    def run(self, dict weights not None, x, hx, int num_threads):
        """One step of x (B, I) or (I,) from h (B, H) or (H,), or from the pair of h and c.

        weights : by their names, perhaps others besides

        Returns
        -------
        The new h, or the pair (h, c); None, with nothing done, if the weights have changed or if a tensor is not what `data`
        takes.
        """
        cdef StepPlan step
        cdef fastrnn_status status
        cdef int64_t num_rows = 1
        cdef void *new_c = NULL
        cdef void *c0 = NULL
        cdef Py_ssize_t i
        if type(x) is not self.tensor_type:
            return None
        for i in range(len(self.names)):
            if not self.versions.matches(i, weights.get(self.names[i])):
                return None
        cdef tuple shape = <tuple>x.shape
        cdef Py_ssize_t ndim = len(shape)
        if ndim == 2:
            num_rows = shape[0]
        elif ndim != 1:
            return None
        h, c = hx, None
        if self.layer.is_lstm:
            if type(hx) is not tuple or len(<tuple>hx) != 2:
                return None
            h, c = <tuple>hx
            c0 = self.data(c, ndim, num_rows, self.layer.hidden_size)
        cdef void *x0 = self.data(x, ndim, num_rows, self.layer.input_size)
        cdef void *h0 = self.data(h, ndim, num_rows, self.layer.h_size)
        if x0 == NULL or h0 == NULL or (self.layer.is_lstm and c0 == NULL):
            return None
        y = self.empty_like(h)
        cdef void *new_h = self.data(y, ndim, num_rows, self.layer.h_size)
        if self.layer.is_lstm:
            cn = self.empty_like(c)
            new_c = self.data(cn, ndim, num_rows, self.layer.hidden_size)
        if new_h == NULL or (self.layer.is_lstm and new_c == NULL):
            return None
        step = self.borrow(num_rows, pool_of(num_threads or min(<int>self.get_num_threads(), 1024)))
        step.batch.x.base, step.batch.y.base = x0, new_h
        step.batch.h0, step.batch.c0, step.batch.cn = h0, c0, new_c
        if not step.is_made:
            raise_status(fastrnn_plan_make(self.layer.layer, &step.batch, &step.plan))
            step.workspace.reserve(step.plan.workspace_size)
            step.is_made = True
        if step.is_short:
            status = fastrnn_plan_run(&step.plan, step.workspace.memory)
        else:
            with nogil:
                status = fastrnn_plan_run(&step.plan, step.workspace.memory)
        if len(self.spare) < 4:
            self.spare.append(step)
        raise_status(status)
        return (y, cn) if self.layer.is_lstm else y

    cdef StepPlan borrow(self, int64_t num_rows, Pool pool):
        """A plan that no other call uses."""
        cdef StepPlan step
        if self.spare:
            step = self.spare.pop()
            if step.batch.num_rows == num_rows and step.pool is pool:
                return step
        return StepPlan(self.layer, num_rows, pool)
