# Live streams: a state store, of which a call runs all slots or those of the rows that it names.

DEF ALIGNMENT = 64
DEF LONG_WORK = 1 << 22  # multiply-adds, of one gate in recurrent layers; calls with fewer are too short to check for signals
DEF ROW_WORK = 64  # other work of one step of one row in one layer, in multiply-adds
DEF SHORT_WORK = 1 << 13  # about 2 us: shorter calls keep the GIL, since releasing and reacquiring it could take longer

cdef object SAFE = "safe"


cdef class BaseStream:
    """What the streams of layers and of models share; the methods at the end call the core for one or the other."""
    cdef readonly int64_t batch_size
    cdef readonly size_t state_bytes  # of the store
    cdef int64_t input_size, output_size  # widths of a step's vectors
    cdef int64_t stride  # steps of x for each step of y
    cdef double work, all_work  # of one step of one row in multiply-adds, without and with other work
    cdef void *block  # the store's allocation
    cdef void *store  # its aligned part
    cdef object dtype  # of y, and of x unless it holds ids
    cdef int type_number
    cdef Workspace workspace
    cdef fastrnn_batch batch  # of the last call
    cdef int64_t num_steps  # of the last call's plan, for the next call of all rows with as many; -1: it cannot be used again
    cdef int64_t pool_number  # of the plan's thread pool
    cdef bint is_long, is_short  # whether calls of the plan are
    cdef bint busy

    def __dealloc__(self):
        PyMem_RawFree(self.block)

    cdef int take_memory(self, int64_t batch_size, size_t size) except -1:
        """Memory for a store of that size."""
        self.batch_size, self.state_bytes = batch_size, size
        self.block = PyMem_RawMalloc(size + ALIGNMENT)
        if self.block == NULL:
            raise MemoryError(f"no memory for a stream's state of {size} bytes")
        self.store = <void *>((<uintptr_t>self.block + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT)
        self.workspace = Workspace()
        self.batch.struct_size = sizeof(fastrnn_batch)
        self.batch.store = self.store
        self.num_steps = -1
        return 0

    def reset(self, rows=None):
        """Set the state to zeros.

        Parameters
        ----------
        rows : (R,) integers, numbers of rows from 0 to B-1, each once, in any order; None: all
            The other rows keep their states.

        Raises
        ------
        TypeError, ValueError
            rows does not fit; the state is unchanged.
        RuntimeError
            Another thread is in a call of this stream.

        Examples
        --------
        >>> import numpy as np, fastrnn
        >>> weights = {"weight_ih_l0": np.eye(1, 2, dtype="f4"), "weight_hh_l0": np.eye(1, dtype="f4")}
        >>> stream = fastrnn.RNN.from_state_dict(weights, nonlinearity="relu").stream(batch_size=2)
        >>> y = stream.step(np.ones((2, 2), "f4"))
        >>> stream.reset(rows=[1])
        >>> stream.state.ravel()
        array([1., 0.], dtype=float32)
        """
        cdef cnp.ndarray slots = None if rows is None else self.take_rows(rows)
        cdef int64_t count = self.batch_size if slots is None else cnp.PyArray_DIM(slots, 0)
        self.claim()
        status = self.reset_slots(count, <const int64_t *>address(slots))
        self.busy = False
        self.raise_rows(status, slots)

    def check_rows(self, rows):
        """A caller's numbers of rows, each once, as int64; of None all rows."""
        cdef cnp.ndarray slots = self.take_rows(range(self.batch_size) if rows is None else rows)
        self.raise_rows(FASTRNN_OK if len(set(slots.tolist())) == len(slots) else FASTRNN_ERROR_ARGUMENT, slots)
        return slots

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
        slots = array.astype(np.int64)  # numbers beyond int64 become negative
        numbers = <const int64_t *>cnp.PyArray_DATA(slots)
        for i in range(cnp.PyArray_DIM(slots, 0)):
            if not 0 <= numbers[i] < self.batch_size:
                raise ValueError(f"rows[{i}] is {array[i]}, but the stream has {self.batch_size} rows")
        return slots

    cdef int raise_rows(self, fastrnn_status status, cnp.ndarray slots) except -1:
        """Like raise_status, but name the row that occurs twice: the only fault that the core finds in rows within range."""
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

    cdef void describe_batch(self, int64_t num_rows, int64_t num_steps, bint steps_axis, cnp.ndarray slots):
        cdef fastrnn_batch *batch = &self.batch
        cdef double steps = <double>num_steps * num_rows
        self.num_steps = -1
        self.is_long = steps * self.all_work >= LONG_WORK
        self.is_short = steps * self.work < SHORT_WORK
        batch.num_rows, batch.num_steps = num_rows, num_steps
        batch.slots = <const int64_t *>address(slots)
        batch.pool = shared_pool.pool
        batch.interrupted = NULL
        if self.is_long:
            batch.interrupted = check_signals
        batch.x.step_stride, batch.y.step_stride = self.input_size, self.output_size
        batch.x.row_stride = batch.x.step_stride * (num_steps if steps_axis else 1)
        batch.y.row_stride = batch.y.step_stride * (num_steps // self.stride if steps_axis else 1)

    cdef int advance(self, cnp.ndarray x, cnp.ndarray y, int64_t num_steps, bint steps_axis, cnp.ndarray slots) except -1:
        """x (B, I) or, with steps_axis, (B, T, I); both C-contiguous. slots: the rows' numbers, or None for all."""
        cdef fastrnn_status status
        cdef Pool pool = shared_pool  # which another thread may replace
        self.claim()
        try:
            if num_steps != self.num_steps or slots is not None or pool.number != self.pool_number:
                self.describe_batch(cnp.PyArray_DIM(x, 0), num_steps, steps_axis, slots)
                self.raise_rows(self.make_plan(), slots)
                if slots is None:
                    self.num_steps, self.pool_number = num_steps, pool.number
            self.batch.x.base, self.batch.y.base = cnp.PyArray_DATA(x), cnp.PyArray_DATA(y)
            if self.is_short:
                status = self.run_plan()
            else:
                with nogil:
                    status = self.run_plan()
                if num_steps > 1 and self.workspace.size > KEPT_BYTES:
                    self.workspace = Workspace()
                    self.num_steps = -1
            raise_status(status)
        finally:
            self.busy = False
        return 0

    cdef int run_rows(self, int64_t num_rows, int64_t num_steps, int64_t total_steps, const int64_t *slots,
                      const int64_t *lengths, const int64_t *batch_sizes, const int64_t *row_indices, void **x,
                      void **y) except -1:
        """Run rows at any addresses in these slots. lengths and batch_sizes: in run order, or NULL for equal lengths."""
        cdef fastrnn_status status
        cdef fastrnn_batch *batch = &self.batch
        cdef Pool pool = shared_pool  # which another thread may replace
        self.claim()
        try:
            self.num_steps = -1
            self.is_short = total_steps * self.work < SHORT_WORK
            memset(batch, 0, sizeof(fastrnn_batch))
            batch.struct_size = sizeof(fastrnn_batch)
            batch.store, batch.slots, batch.pool = self.store, slots, pool.pool
            batch.num_rows, batch.num_steps = num_rows, num_steps
            batch.lengths, batch.batch_sizes, batch.row_indices = lengths, batch_sizes, row_indices
            batch.x.rows, batch.y.rows = x, y
            batch.x.step_stride, batch.y.step_stride = self.input_size, self.output_size
            if total_steps * self.all_work >= LONG_WORK and PyThread_get_thread_ident() == main_thread:
                batch.interrupted = check_signals
            raise_status(self.make_plan())
            if self.is_short:
                status = self.run_plan()
            else:
                with nogil:
                    status = self.run_plan()
            if self.workspace.size > KEPT_BYTES:
                self.workspace = Workspace()
            raise_status(status)
        finally:
            self.forget_batch()
            self.busy = False
        return 0

    cdef void forget_batch(self) noexcept:
        """Clear what only the batch of run_rows has."""
        memset(&self.batch, 0, sizeof(fastrnn_batch))
        self.batch.struct_size = sizeof(fastrnn_batch)
        self.batch.store = self.store

    def step(self, x, rows=None, *, casting="safe"):
        """One step of every row, or of the named ones.

        Parameters
        ----------
        x : (B, I) array; with rows (R, I), in the order of `rows`
        rows : (R,) integers, numbers of rows from 0 to B-1, each once, in any order; None: all
            The other rows keep their states and cost nothing.
        casting : which conversions of x to the layer's dtype are allowed, by NumPy's names; see the layer

        Returns
        -------
        (B, P) or (R, P) array

        Raises
        ------
        TypeError, ValueError
            x or rows does not fit, or casting does not allow to convert x; the message says which, what was found and what was
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
        shape[0], shape[1] = self.batch_size, self.output_size
        if rows is not None:
            slots = self.take_rows(rows)
            shape[0] = cnp.PyArray_DIM(slots, 0)
        cdef cnp.ndarray array = self.take_inputs(x, shape[0], False, casting)
        cdef cnp.ndarray y = cnp.PyArray_SimpleNew(2, shape, self.type_number)
        if slots is None:
            self.run_step(array, y)
        else:
            self.advance(array, y, 1, False, slots)
        return y

    def run(self, x, rows=None, *, casting="safe"):
        """Several steps of every row, or of the named ones: the same bits as one step at a time.

        Parameters
        ----------
        x : (B, T, I) array; with rows (R, T, I), in the order of `rows`
        rows : (R,) integers, as in :meth:`step`
        casting : which conversions of x to the layer's dtype are allowed, by NumPy's names; see the layer

        Returns
        -------
        (B, T, P) or (R, T, P) array

        Raises
        ------
        TypeError, ValueError
            x or rows does not fit, or casting does not allow to convert x; the stream's state is unchanged.
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
        cdef int64_t count = self.batch_size if slots is None else cnp.PyArray_DIM(slots, 0)
        cdef cnp.ndarray array = self.take_inputs(x, count, True, casting)
        cdef int64_t num_steps = cnp.PyArray_DIM(array, 1)
        if num_steps % self.stride:
            raise ValueError(f"x has {num_steps} steps, wanted a multiple of {self.stride}, the stride of the convolutions")
        cdef cnp.ndarray y = np.empty((count, num_steps // self.stride, self.output_size), self.dtype)
        self.advance(array, y, num_steps, True, slots)
        return y

    def snapshot(self):
        """The state as bytes, for :meth:`restore`.

        They hold a fingerprint of the layer's options and weights, and the state in little-endian order, so that a
        stream of the same layer restores them anywhere: on another instruction set or machine, or after pickling.
        ``include/fastrnn.h`` has the format.

        Returns
        -------
        bytes
            40 and, for each row and layer, P (for an LSTM P + H) numbers of the layer's dtype.
        """
        self.claim()
        try:
            return self.take_snapshot(self.batch_size, NULL)
        finally:
            self.busy = False

    def restore(self, bytes snapshot not None):
        """Restore a snapshot of this stream, or of any stream with as many rows and the same weights and options.

        Raises
        ------
        ValueError
            The bytes are not a snapshot, or one of another layer or number of rows; the stream's state is unchanged.

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
        self.claim()
        try:
            self.put_snapshot(snapshot, self.batch_size, NULL)
        finally:
            self.busy = False

    cdef bytes take_snapshot(self, int64_t count, const int64_t *slots):
        cdef size_t size
        raise_status(self.snapshot_size(count, &size))
        snapshot = PyBytes_FromStringAndSize(NULL, size)
        raise_status(self.save_snapshot(count, slots, PyBytes_AS_STRING(snapshot)))
        return snapshot

    cdef int put_snapshot(self, bytes snapshot, int64_t count, const int64_t *slots) except -1:
        cdef const char *content = snapshot
        cdef size_t size = len(snapshot), wanted
        cdef fastrnn_snapshot_info info
        info.struct_size = sizeof(info)
        status = self.restore_snapshot(count, slots, content, size)
        if status != FASTRNN_ERROR_SNAPSHOT:
            return raise_status(status)
        if fastrnn_snapshot_describe(content, size, &info) != FASTRNN_OK:
            raise ValueError(f"snapshot is {size} bytes and not a snapshot, wanted bytes that snapshot() returned")
        kind, fingerprint, extra_size = self.owner()
        if info.version != 1:
            raise ValueError(f"snapshot is of format version {info.version}, wanted 1")
        if info.fingerprint != fingerprint or info.real_size != self.dtype.itemsize:
            raise ValueError(f"snapshot is of a {kind} with other options or weights: its fingerprint is "
                             f"{info.fingerprint:016x}, wanted {fingerprint:016x}")
        if info.num_rows != count:
            raise ValueError(f"snapshot is of {info.num_rows} rows, wanted {count}")
        if info.extra_size != extra_size:
            raise ValueError(f"snapshot has {info.extra_size} numbers for each row beside the recurrent state, wanted "
                             f"{extra_size}")
        raise_status(self.snapshot_size(count, &wanted))
        raise ValueError(f"snapshot has {size} bytes, wanted {wanted}")

    cdef cnp.ndarray take_inputs(self, x, int64_t num_rows, bint steps_axis, casting):
        """x as a C-contiguous array (num_rows, I), or with steps_axis (num_rows, T, I), of the type that the core reads."""
        cdef cnp.ndarray array
        cdef int ndim = 3 if steps_axis else 2
        if not cnp.PyArray_Check(x) or cnp.PyArray_TYPE(<cnp.ndarray>x) != self.type_number or casting is not SAFE:
            x = as_floats(x, "x", self.dtype, check_casting(casting))
        array = <cnp.ndarray>x
        if (cnp.PyArray_NDIM(array) != ndim or cnp.PyArray_DIM(array, 0) != num_rows
                or cnp.PyArray_DIM(array, ndim - 1) != self.input_size):
            steps = "T, " if steps_axis else ""
            raise ValueError(f"x has shape {x.shape}, wanted ({num_rows}, {steps}{self.input_size})")
        return array if cnp.PyArray_ISCARRAY_RO(array) else np.array(array, self.dtype, order="C")

    cdef cnp.ndarray take_chunk(self, x, str name, casting):
        """One row's steps as a C-contiguous array (T, I) of the type that the core reads."""
        cdef cnp.ndarray array = self.read_chunk(x, name, casting)
        cdef int64_t num_steps = cnp.PyArray_DIM(array, 0)
        if num_steps % self.stride:
            raise ValueError(f"{name} has {num_steps} steps, wanted a multiple of {self.stride}, the stride of the convolutions")
        return array

    cdef cnp.ndarray read_chunk(self, x, str name, casting):
        cdef cnp.ndarray array = as_floats(x, name, self.dtype, check_casting(casting))
        if cnp.PyArray_NDIM(array) != 2 or cnp.PyArray_DIM(array, 1) != self.input_size:
            raise ValueError(f"{name} has shape {(<object>array).shape}, wanted (T, {self.input_size})")
        return array if cnp.PyArray_ISCARRAY_RO(array) else np.array(array, self.dtype, order="C")

    cdef bint takes_ids(self) noexcept:
        return False

    cdef int run_step(self, cnp.ndarray x, cnp.ndarray y) except -1:
        """One step of all rows."""
        return self.advance(x, y, 1, False, None)

    cdef fastrnn_status make_plan(self) except *:
        """Make a plan of the batch, and its workspace."""
        raise NotImplementedError

    cdef fastrnn_status run_plan(self) noexcept nogil:
        return FASTRNN_ERROR_ARGUMENT

    cdef fastrnn_status reset_slots(self, int64_t count, const int64_t *slots) noexcept:
        return FASTRNN_ERROR_ARGUMENT

    cdef fastrnn_status get_slot(self, int64_t op, const int64_t *slot, cnp.ndarray h, cnp.ndarray c) except *:
        """Copy the state of one slot; op: which operation of a model."""
        return FASTRNN_ERROR_ARGUMENT

    cdef fastrnn_status snapshot_size(self, int64_t count, size_t *size) noexcept:
        return FASTRNN_ERROR_ARGUMENT

    cdef fastrnn_status save_snapshot(self, int64_t count, const int64_t *slots, void *snapshot) noexcept:
        return FASTRNN_ERROR_ARGUMENT

    cdef fastrnn_status restore_snapshot(self, int64_t count, const int64_t *slots, const void *snapshot,
                                         size_t size) noexcept:
        return FASTRNN_ERROR_ARGUMENT

    cdef owner(self):
        """What has the weights, "layer" or "model"; its fingerprint; how many numbers a row of a snapshot has beside h and c."""
        raise NotImplementedError


cdef class Stream(BaseStream):
    """The stream of a layer."""
    cdef Layer layer
    cdef fastrnn_plan plan
    cdef fastrnn_step *prepared  # a step of all rows; NULL before the first one
    cdef void *prepared_block  # its allocation
    cdef int64_t prepared_pool  # the number of its thread pool
    cdef bint prepared_is_short

    def __cinit__(self, Layer layer not None, int64_t batch_size):
        cdef size_t size
        self.layer = layer
        self.dtype, self.type_number = layer.dtype, layer.type_number
        self.input_size, self.output_size, self.stride = layer.input_size, layer.h_size, 1
        self.work = <double>layer.num_layers * layer.hidden_size * (layer.input_size + layer.hidden_size)
        self.all_work = self.work + <double>layer.num_layers * ROW_WORK
        raise_status(fastrnn_store_size(layer.layer, batch_size, 0, &size))
        self.take_memory(batch_size, size)
        raise_status(fastrnn_store_init(layer.layer, batch_size, 0, self.store))
        self.plan.struct_size = sizeof(fastrnn_plan)

    def __dealloc__(self):
        PyMem_RawFree(self.prepared_block)

    def set_state(self, cnp.ndarray h, cnp.ndarray c):
        self.layer.check_states(h, c, self.batch_size, False)
        self.claim()
        status = fastrnn_store_set(self.layer.layer, self.store, self.batch_size, NULL, address(h), address(c))
        self.busy = False
        raise_status(status)

    def get_state(self, cnp.ndarray h, cnp.ndarray c):
        self.layer.check_states(h, c, self.batch_size, True)
        self.claim()
        status = fastrnn_store_get(self.layer.layer, self.store, self.batch_size, NULL, <void *>address(h), <void *>address(c))
        self.busy = False
        raise_status(status)

    cdef int prepare(self) except -1:
        """Prepare a step of all rows on the present thread pool."""
        cdef size_t size
        self.describe_batch(self.batch_size, 1, False, None)
        raise_status(fastrnn_step_size(self.layer.layer, &self.batch, &size))
        self.prepared = NULL
        PyMem_RawFree(self.prepared_block)
        self.prepared_block = PyMem_RawMalloc(size)
        if self.prepared_block == NULL:
            raise MemoryError(f"no memory for a step of {size} bytes")
        raise_status(fastrnn_step_prepare(self.layer.layer, &self.batch, 0, self.prepared_block, size, &self.prepared))
        self.prepared_pool, self.prepared_is_short = shared_pool.number, self.is_short
        return 0

    cdef int run_step(self, cnp.ndarray x, cnp.ndarray y) except -1:
        cdef fastrnn_status status
        cdef Pool pool
        cdef const void *inputs = cnp.PyArray_DATA(x)
        cdef void *outputs = cnp.PyArray_DATA(y)
        if self.busy:
            self.claim()  # which raises
        if self.prepared == NULL or self.prepared_pool != shared_pool.number:
            self.prepare()
        if self.prepared_is_short:  # no other thread can run Python code before it returns
            status = fastrnn_step_run(self.prepared, inputs, outputs)
        else:
            pool = shared_pool  # which another thread may replace
            self.busy = True
            with nogil:
                status = fastrnn_step_run(self.prepared, inputs, outputs)
            self.busy = False
        return 0 if status == FASTRNN_OK else raise_status(status)

    cdef fastrnn_status make_plan(self) except *:
        cdef fastrnn_status status = fastrnn_plan_make(self.layer.layer, &self.batch, &self.plan)
        if status == FASTRNN_OK:
            self.workspace.reserve(self.plan.workspace_size)
        return status

    cdef fastrnn_status run_plan(self) noexcept nogil:
        return fastrnn_plan_run(&self.plan, self.workspace.memory)

    cdef fastrnn_status reset_slots(self, int64_t count, const int64_t *slots) noexcept:
        return fastrnn_store_set(self.layer.layer, self.store, count, slots, NULL, NULL)

    cdef fastrnn_status get_slot(self, int64_t op, const int64_t *slot, cnp.ndarray h, cnp.ndarray c) except *:
        self.layer.check_states(h, c, 1, True)
        return fastrnn_store_get(self.layer.layer, self.store, 1, slot, <void *>address(h), <void *>address(c))

    cdef fastrnn_status snapshot_size(self, int64_t count, size_t *size) noexcept:
        return fastrnn_snapshot_size(self.layer.layer, self.store, count, size)

    cdef fastrnn_status save_snapshot(self, int64_t count, const int64_t *slots, void *snapshot) noexcept:
        return fastrnn_snapshot_save(self.layer.layer, self.store, count, slots, snapshot)

    cdef fastrnn_status restore_snapshot(self, int64_t count, const int64_t *slots, const void *snapshot,
                                         size_t size) noexcept:
        return fastrnn_snapshot_restore(self.layer.layer, self.store, count, slots, snapshot, size)

    cdef owner(self):
        return "layer", self.layer.fingerprint, 0
