# A live stream: a state store, of which a call runs all slots or those of the rows that it names.

DEF ALIGNMENT = 64
DEF LONG_WORK = 1 << 22  # multiply-adds for one gate; calls with fewer are too short to check for signals
DEF ROW_WORK = 64  # other work of one step of one row, in multiply-adds
DEF SHORT_WORK = 1 << 13  # about 2 us: shorter calls keep the GIL, since releasing and reacquiring it could take longer

cdef object SAFE = "safe"


cdef class Stream:
    """The state of a live batch between calls."""
    cdef Layer layer
    cdef readonly int64_t batch_size
    cdef void *block  # the store's allocation
    cdef void *store  # its aligned part
    cdef Workspace workspace
    cdef fastrnn_batch batch  # of the last call
    cdef fastrnn_plan plan  # kept for the next call of all rows with as many steps
    cdef int64_t num_steps  # of the plan; -1: it cannot be used again
    cdef int64_t pool_number  # of the plan's thread pool
    cdef bint is_long, is_short  # whether calls of the plan are
    cdef fastrnn_step *prepared  # a step of all rows; NULL before the first one
    cdef void *prepared_block  # its allocation
    cdef int64_t prepared_pool  # the number of its thread pool
    cdef bint prepared_is_short
    cdef bint busy

    def __cinit__(self, Layer layer not None, int64_t batch_size):
        cdef size_t size
        self.layer = layer
        self.batch_size = batch_size
        raise_status(fastrnn_store_size(layer.layer, batch_size, 0, &size))
        self.block = PyMem_RawMalloc(size + ALIGNMENT)
        if self.block == NULL:
            raise MemoryError(f"no memory for a stream's state of {size} bytes")
        self.store = <void *>((<uintptr_t>self.block + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT)
        raise_status(fastrnn_store_init(layer.layer, batch_size, 0, self.store))
        self.workspace = Workspace()
        self.batch.struct_size, self.plan.struct_size = sizeof(fastrnn_batch), sizeof(fastrnn_plan)
        self.batch.store = self.store
        self.num_steps = -1

    def __dealloc__(self):
        PyMem_RawFree(self.block)
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

    def reset_rows(self, rows):
        cdef cnp.ndarray slots = self.take_rows(rows)
        self.claim()
        status = fastrnn_store_set(self.layer.layer, self.store, cnp.PyArray_DIM(slots, 0),
                                   <const int64_t *>cnp.PyArray_DATA(slots), NULL, NULL)
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
        # multiply-adds of a gate in one step of one row
        cdef double work = <double>self.layer.hidden_size * (self.layer.input_size + self.layer.hidden_size)
        cdef double rows = <double>num_steps * num_rows * self.layer.num_layers
        self.num_steps = -1
        self.is_long = rows * (work + ROW_WORK) >= LONG_WORK
        self.is_short = rows * work < SHORT_WORK
        batch.num_rows, batch.num_steps = num_rows, num_steps
        batch.slots = NULL
        if slots is not None:
            batch.slots = <const int64_t *>cnp.PyArray_DATA(slots)
        batch.pool = shared_pool.pool
        batch.interrupted = NULL
        if self.is_long:
            batch.interrupted = check_signals
        batch.x.step_stride, batch.y.step_stride = self.layer.input_size, self.layer.h_size
        batch.x.row_stride = batch.x.step_stride * (num_steps if steps_axis else 1)
        batch.y.row_stride = batch.y.step_stride * (num_steps if steps_axis else 1)

    cdef int make_plan(self, int64_t num_rows, int64_t num_steps, bint steps_axis, cnp.ndarray slots) except -1:
        self.describe_batch(num_rows, num_steps, steps_axis, slots)
        self.raise_rows(fastrnn_plan_make(self.layer.layer, &self.batch, &self.plan), slots)
        self.workspace.reserve(self.plan.workspace_size)
        if slots is None:
            self.num_steps, self.pool_number = num_steps, shared_pool.number
        return 0

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

    cdef int run_prepared(self, const void *x, void *y) except -1:
        """One step of all rows."""
        cdef fastrnn_status status
        cdef Pool pool
        if self.busy:
            self.claim()  # which raises
        if self.prepared == NULL or self.prepared_pool != shared_pool.number:
            self.prepare()
        if self.prepared_is_short:  # no other thread can run Python code before it returns
            status = fastrnn_step_run(self.prepared, x, y)
        else:
            pool = shared_pool  # which another thread may replace
            self.busy = True
            with nogil:
                status = fastrnn_step_run(self.prepared, x, y)
            self.busy = False
        return 0 if status == FASTRNN_OK else raise_status(status)

    cdef int advance(self, cnp.ndarray x, cnp.ndarray y, int64_t num_steps, bint steps_axis, cnp.ndarray slots) except -1:
        """x (B, I) or, with steps_axis, (B, T, I); both C-contiguous. slots: the rows' numbers, or None for all."""
        cdef fastrnn_status status
        cdef Pool pool = shared_pool  # which another thread may replace
        self.claim()
        try:
            if num_steps != self.num_steps or slots is not None or pool.number != self.pool_number:
                self.make_plan(cnp.PyArray_DIM(x, 0), num_steps, steps_axis, slots)
            self.batch.x.base, self.batch.y.base = cnp.PyArray_DATA(x), cnp.PyArray_DATA(y)
            if self.is_short:
                status = fastrnn_plan_run(&self.plan, self.workspace.memory)
            else:
                with nogil:
                    status = fastrnn_plan_run(&self.plan, self.workspace.memory)
                if num_steps > 1 and self.workspace.size > KEPT_BYTES:
                    self.workspace = Workspace()
                    self.num_steps = -1
            raise_status(status)
        finally:
            self.busy = False
        return 0

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
        if slots is None:
            self.run_prepared(cnp.PyArray_DATA(array), cnp.PyArray_DATA(y))
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
            40 and, for each row and layer, P (for an LSTM P + H) numbers of the layer's dtype.
        """
        cdef size_t size
        self.claim()
        try:
            raise_status(fastrnn_snapshot_size(self.layer.layer, self.store, self.batch_size, &size))
            snapshot = PyBytes_FromStringAndSize(NULL, size)
            raise_status(fastrnn_snapshot_save(self.layer.layer, self.store, self.batch_size, NULL, PyBytes_AS_STRING(snapshot)))
            return snapshot
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
        cdef const char *content = snapshot
        cdef size_t size = len(snapshot), wanted
        cdef fastrnn_snapshot_info info
        info.struct_size = sizeof(info)
        self.claim()
        status = fastrnn_snapshot_restore(self.layer.layer, self.store, self.batch_size, NULL, content, size)
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
        if info.extra_size:
            raise ValueError(f"snapshot has {info.extra_size} numbers for each row beside the recurrent state, wanted 0")
        raise_status(fastrnn_snapshot_size(self.layer.layer, self.store, self.batch_size, &wanted))
        raise ValueError(f"snapshot has {size} bytes, wanted {wanted}")
