# PyTorch's tensors: whether they have changed, and runs on them. They are read by their attributes and methods, so that nothing
# here imports PyTorch.

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
    marks[0], marks[1], marks[2] = tensor.data_ptr(), tensor._version, tensor.is_contiguous()
    return 0


cdef class TensorPlan:
    """A plan of rows of equal length, kept for the next call of the same shape."""
    cdef fastrnn_batch batch
    cdef fastrnn_plan plan
    cdef Workspace workspace
    cdef Pool pool  # which the plan refers to
    cdef bint is_made, is_short, batch_first

    def __cinit__(self, Layer layer not None, int64_t num_rows, int64_t num_steps, bint batch_first, Pool pool not None):
        cdef fastrnn_batch *batch = &self.batch
        # multiply-adds of a gate
        cdef double work = <double>layer.hidden_size * (layer.input_size + layer.hidden_size) * layer.num_layers
        work *= <double>num_rows * num_steps * layer.num_directions
        batch.struct_size, self.plan.struct_size = sizeof(fastrnn_batch), sizeof(fastrnn_plan)
        batch.num_rows, batch.num_steps = num_rows, num_steps
        set_strides(&batch.x, num_rows, num_steps, layer.input_size, batch_first)
        set_strides(&batch.y, num_rows, num_steps, layer.num_directions * layer.h_size, batch_first)
        batch.pool = pool.pool
        self.is_short = work < SHORT_WORK
        if work >= LONG_WORK:
            batch.interrupted = check_signals
        self.workspace, self.pool, self.batch_first = Workspace(), pool, batch_first


cdef void set_strides(fastrnn_view *view, int64_t num_rows, int64_t num_steps, int64_t width, bint batch_first) noexcept:
    view.row_stride = num_steps * width if batch_first else width
    view.step_stride = width if batch_first else num_rows * width


cdef class TensorRunner:
    """Runs of a layer on contiguous tensors.

    versions : of the weights that the layer was prepared from
    tensor_type, dtype, empty_like, get_num_threads : PyTorch's
    """
    cdef Layer layer
    cdef TensorVersions versions
    cdef object tensor_type, dtype, empty_like, get_num_threads
    cdef list spare  # plans of earlier calls

    def __cinit__(self, Layer layer not None, TensorVersions versions not None, tensor_type, dtype, empty_like,
                  get_num_threads):
        self.layer, self.versions, self.spare = layer, versions, []
        self.tensor_type, self.dtype = tensor_type, dtype
        self.empty_like, self.get_num_threads = empty_like, get_num_threads

    cdef void *data(self, tensor, tuple shape) except? NULL:
        """The address of a tensor that is contiguous on the CPU, of the layer's dtype and this shape; NULL if it is not."""
        if type(tensor) is not self.tensor_type or tensor.dtype is not self.dtype or not tensor.is_cpu:
            return NULL
        if tensor.shape != shape or not tensor.is_contiguous() or tensor.is_neg():
            return NULL
        return <void *><uintptr_t>tensor.data_ptr()

    cdef void *new_data(self, tensor) except? NULL:
        """The address of a tensor that PyTorch has just made like one that `data` took."""
        if type(tensor) is not self.tensor_type:
            raise TypeError(f"a new tensor is {type(tensor).__name__}, wanted {self.tensor_type.__name__}")
        return <void *><uintptr_t>tensor.data_ptr()

    cdef bint has_weights(self, dict weights, names) except -1:
        cdef Py_ssize_t i = 0
        for name in names:
            if i == len(self.versions.sources) or not self.versions.matches(i, weights.get(name)):
                return False
            i += 1
        return i == len(self.versions.sources)

    def run(self, dict weights not None, names, x, hx, bint is_cell, bint batch_first, int num_threads):
        """Run what PyTorch's module of these weights would, if that is as simple as usual.

        weights, names : the module's tensors by their names, and which of them are its weights
        x, hx : the module's input and initial state
        is_cell : whether the module is a cell, whose x has no time
        batch_first : whether x (B, T, I) has the rows first
        num_threads : 0 for PyTorch's number

        Returns
        -------
        What the module returns; None, with nothing done, if the weights have changed, if x or hx does not fit, or if one of
        their tensors is not what `data` takes.
        """
        cdef TensorPlan call
        cdef fastrnn_status status
        cdef int64_t num_rows = 1, num_steps = 1, count = self.layer.num_layers * self.layer.num_directions
        cdef bint is_lstm = self.layer.is_lstm
        cdef void *h0 = NULL
        cdef void *c0 = NULL
        if type(x) is not self.tensor_type or not self.has_weights(weights, names):
            return None
        cdef tuple shape = <tuple>x.shape  # a subclass of tuple
        cdef Py_ssize_t ndim = len(shape)
        if not 2 - is_cell <= ndim <= 3 - is_cell or <int64_t>shape[ndim - 1] != self.layer.input_size:
            return None
        cdef tuple rows = shape[:ndim - 1] if is_cell else (count,)
        if is_cell:
            num_rows = shape[0] if ndim == 2 else 1
            batch_first = True
        elif ndim == 2:
            num_steps = shape[0]
            batch_first = True
        else:
            num_rows, num_steps = shape[not batch_first], shape[batch_first]
            rows = (count, num_rows)
        cdef tuple h_shape = rows + (self.layer.h_size,)
        cdef tuple c_shape = h_shape if self.layer.h_size == self.layer.hidden_size else rows + (self.layer.hidden_size,)
        cdef void *x0 = self.data(x, shape)
        if x0 == NULL:  # also if there are no rows or steps
            return None
        cn = None
        if hx is None:
            hn = x.new_empty(h_shape)
            if is_lstm:
                cn = x.new_empty(c_shape)
        else:
            h, c = hx, None
            if is_lstm:
                if type(hx) is not tuple or len(<tuple>hx) != 2:
                    return None
                h, c = <tuple>hx
                c0 = self.data(c, c_shape)
            h0 = self.data(h, h_shape)
            if h0 == NULL or (is_lstm and c0 == NULL):
                return None
            hn = self.empty_like(h)
            if is_lstm:
                cn = self.empty_like(c)
        y = hn if is_cell else x.new_empty(shape[:ndim - 1] + (self.layer.num_directions * self.layer.h_size,))
        call = self.borrow(num_rows, num_steps, batch_first, h0 != NULL,
                           pool_of(num_threads or self.get_num_threads()))
        call.batch.x.base, call.batch.y.base = x0, self.new_data(y)
        call.batch.h0, call.batch.c0 = h0, c0
        if not is_cell:  # whose output is its state
            call.batch.hn = self.new_data(hn)
        if is_lstm:
            call.batch.cn = self.new_data(cn)
        if not call.is_made:
            raise_status(fastrnn_plan_make(self.layer.layer, &call.batch, &call.plan))
            call.workspace.reserve(call.plan.workspace_size)
            call.is_made = True
        if call.is_short:
            status = fastrnn_plan_run(&call.plan, call.workspace.memory)
        else:
            with nogil:
                status = fastrnn_plan_run(&call.plan, call.workspace.memory)
        if len(self.spare) < 4 and call.workspace.size <= KEPT_BYTES:
            self.spare.append(call)
        raise_status(status)
        last = (hn, cn) if is_lstm else hn
        return last if is_cell else (y, last)

    cdef TensorPlan borrow(self, int64_t num_rows, int64_t num_steps, bint batch_first, bint has_state, Pool pool):
        """A plan for a call of this shape that no other call uses."""
        cdef TensorPlan call
        if self.spare:
            call = self.spare.pop()
            if (call.batch.num_rows == num_rows and call.batch.num_steps == num_steps and call.batch_first == batch_first
                    and (call.batch.h0 != NULL) == has_state and call.pool is pool):
                return call
        return TensorPlan(self.layer, num_rows, num_steps, batch_first, pool)
