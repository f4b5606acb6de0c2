# The prepared model, and the calls that run a batch through it.

OP_KINDS = {
    "layer": FASTRNN_OP_LAYER,
    "embedding": FASTRNN_OP_EMBEDDING,
    "linear": FASTRNN_OP_LINEAR,
    "conv1d": FASTRNN_OP_CONV1D,
    "layer_norm": FASTRNN_OP_LAYER_NORM,
    "scale": FASTRNN_OP_SCALE,
    "activation": FASTRNN_OP_ACTIVATION,
    "softmax": FASTRNN_OP_SOFTMAX,
    "log_softmax": FASTRNN_OP_LOG_SOFTMAX,
    "last": FASTRNN_OP_LAST,
    "first": FASTRNN_OP_FIRST,
    "mean": FASTRNN_OP_MEAN,
    "max": FASTRNN_OP_MAX,
    "final": FASTRNN_OP_FINAL,
    "reverse": FASTRNN_OP_REVERSE,
}


cdef class Model:
    """A prepared chain of operations. As for Layer, this class checks that memory may be used, and not what it means."""
    cdef fastrnn_model *model
    cdef list shapes  # of each operation: (shape of weight, shape of bias), or Cells.sizes()
    cdef readonly int64_t num_ids, input_size, output_size, stride, first_not_streamed, state_size
    cdef readonly bint pools
    cdef readonly object x_dtype, dtype  # of x: int64 for ids; of y
    cdef int x_type_number, type_number
    cdef double work, all_work  # of one step of one row, as of a stream
    cdef Workspaces workspaces

    def __cinit__(self, list ops, isa):
        """ops: (kind, options), where kind is a key of OP_KINDS, and options has arrays and numbers by the names of fastrnn_op;
        of a layer, "cells" are the arguments of Cells."""
        cdef fastrnn_op *prepared
        cdef fastrnn_op *op
        cdef fastrnn_model_info info
        cdef Cells cells
        cdef bytes isa_name = b"" if isa is None else isa.encode()
        cdef const char *isa_pointer = NULL
        cdef int64_t count = len(ops), i
        cdef fastrnn_status status
        if isa is not None:
            isa_pointer = isa_name
        self.workspaces = Workspaces()
        self.dtype = np.dtype(np.float32)
        self.type_number = self.dtype.num
        self.shapes, kept = [], []
        prepared = <fastrnn_op *>PyMem_RawMalloc((count + 1) * sizeof(fastrnn_op))
        if prepared == NULL:
            raise MemoryError("no memory for the model's description")
        memset(prepared, 0, (count + 1) * sizeof(fastrnn_op))
        try:
            for i in range(count):
                kind, options = ops[i]
                op = &prepared[i]
                op.struct_size = sizeof(fastrnn_op)
                op.kind = OP_KINDS[kind]
                if kind == "layer":
                    cells = Cells(*options["cells"])
                    kept.append(cells)
                    op.config, op.cells = &cells.config, cells.cells
                    self.shapes.append(cells.sizes())
                    self.work += (<double>cells.config.num_layers * cells.config.hidden_size
                                  * (cells.config.input_size + cells.config.hidden_size))
                    self.all_work += <double>cells.config.num_layers * ROW_WORK
                    continue
                op.input_size, op.output_size = options["input_size"], options.get("output_size", 0)
                op.kernel_size = options.get("kernel_size", 0)
                op.stride, op.dilation = options.get("stride", 0), options.get("dilation", 0)
                op.padding_left, op.padding_right = options.get("padding", (0, 0))
                op.eps = options.get("eps", 0.0)
                weight, bias = options.get("weight"), options.get("bias")
                rows, columns = max(op.output_size, 1), max(op.kernel_size, 1)
                check_block(weight, f"weight of op {i}", self.dtype, self.type_number, rows, op.input_size, columns, False)
                check_block(bias, f"bias of op {i}", self.dtype, self.type_number, 1, 1, op.output_size or op.input_size, False)
                op.weight, op.bias = address(weight), address(bias)
                self.shapes.append([None if array is None else np.asarray(array).shape for array in (weight, bias)])
                if kind == "activation":
                    name, alpha, beta = options["activation"]
                    op.activation = fastrnn_activation(ACTIVATIONS[name], alpha, beta)
                if kind != "embedding":
                    self.work += <double>op.input_size * rows * columns / 4  # as of one of an LSTM's gates
                self.all_work += ROW_WORK
            with nogil:
                status = fastrnn_model_create(prepared, count, isa_pointer, &self.model)
            raise_status(status)
        finally:
            PyMem_RawFree(prepared)
        self.all_work += self.work
        info.struct_size = sizeof(info)
        raise_status(fastrnn_model_describe(self.model, &info))
        self.num_ids, self.input_size, self.output_size = info.num_ids, info.input_size, info.output_size
        self.pools, self.stride, self.first_not_streamed = info.pools, info.stride, info.first_not_streamed
        self.state_size = info.state_size
        self.x_dtype = np.dtype(np.int64) if self.num_ids else self.dtype
        self.x_type_number = self.x_dtype.num

    def __dealloc__(self):
        fastrnn_model_destroy(self.model)

    @property
    def isa(self):
        return fastrnn_model_isa(self.model).decode()

    @property
    def nbytes(self):
        return fastrnn_model_nbytes(self.model)

    @property
    def fingerprint(self):
        return fastrnn_model_fingerprint(self.model)

    def unpack(self, int64_t index):
        """The weights of an operation, as given: (weight, bias), or of a layer its cells as Layer.unpack."""
        cdef const fastrnn_layer *layer = fastrnn_model_layer(self.model, index)
        if not 0 <= index < len(self.shapes):
            raise IndexError(f"index is {index}, but the model has {len(self.shapes)} operations")
        if layer != NULL:
            return unpack_layer(layer, self.dtype, self.shapes[index])
        weight, bias = [None if shape is None else np.empty(shape, self.dtype) for shape in self.shapes[index]]
        raise_status(fastrnn_model_unpack(self.model, index, <void *>address(weight), <void *>address(bias)))
        return weight, bias

    def run(self, x, y, schedule, past_end=None):
        """Run a batch.

        x : (B, T, I), or packed (N, I), or a list of (T_i, I); of ids I is 1
        y : the same with the steps of the results and O; of a model that pools (B, 1, O), whatever x is
        schedule : a Schedule of the steps of x, or None for rows of equal length
        past_end : None, or "zero" for zeros past the rows' ends of y (B, T, O)

        Raises
        ------
        IdError
            An id is out of range; nothing is written.
        """
        cdef fastrnn_batch batch
        cdef fastrnn_model_plan *plan
        cdef fastrnn_status status
        cdef Pool pool = shared_pool  # which another thread may replace
        cdef RowPointers x_rows, y_rows
        cdef Workspace workspace = None
        cdef size_t size
        start_batch(&batch, x, schedule, self.x_dtype, self.x_type_number)
        if isinstance(x, list) != isinstance(y, list) and not self.pools:
            raise ValueError(f"y is {type(y).__name__}, but x is {type(x).__name__}")
        check_vectors(x, "x", self.x_dtype, self.x_type_number, &batch, batch.packed, self.input_size, False, NULL)
        check_vectors(y, "y", self.dtype, self.type_number, &batch, batch.packed and not self.pools, self.output_size, True,
                      self.model)
        if past_end is not None:
            set_past_end(&batch, y, past_end)
        batch.pool = pool.pool
        x_rows, y_rows = RowPointers(x), RowPointers(y)
        set_view(&batch.x, x, x_rows)
        set_view(&batch.y, y, y_rows)
        raise_status(fastrnn_model_plan_size(self.model, &batch, &size))
        try:
            workspace = self.workspaces.borrow(size)
            raise_status(fastrnn_model_plan_make(self.model, &batch, workspace.memory, workspace.size, &plan))
            with nogil:
                status = fastrnn_model_plan_run(plan)
            raise_status(status)
        finally:
            self.workspaces.give_back(workspace)


cdef class ModelStream(BaseStream):
    """The stream of a model."""
    cdef Model model
    cdef fastrnn_model_plan *plan  # in the workspace

    def __cinit__(self, Model model not None, int64_t batch_size):
        cdef size_t size
        self.model = model
        self.dtype, self.type_number = model.dtype, model.type_number
        self.input_size, self.output_size, self.stride = model.input_size, model.output_size, model.stride
        self.work, self.all_work = model.work, model.all_work
        raise_status(fastrnn_model_store_size(model.model, batch_size, &size))
        self.take_memory(batch_size, size)
        raise_status(fastrnn_model_store_init(model.model, batch_size, self.store))

    cdef cnp.ndarray take_inputs(self, x, int64_t num_rows, bint steps_axis, casting):
        cdef cnp.ndarray array
        if not self.model.num_ids:
            return BaseStream.take_inputs(self, x, num_rows, steps_axis, casting)
        array = as_ids(x, "x")
        if (cnp.PyArray_NDIM(array) != (2 if steps_axis else 1) or cnp.PyArray_DIM(array, 0) != num_rows):
            raise ValueError(f"x has shape {(<object>array).shape}, wanted ({num_rows},{' T' if steps_axis else ''})")
        return np.array(array, np.int64, order="C")[..., None]

    cdef cnp.ndarray read_chunk(self, x, str name, casting):
        cdef cnp.ndarray array
        if not self.model.num_ids:
            return BaseStream.read_chunk(self, x, name, casting)
        array = as_ids(x, name)
        if cnp.PyArray_NDIM(array) != 1:
            raise ValueError(f"{name} has shape {(<object>array).shape}, wanted (T,)")
        return np.array(array, np.int64, order="C")[..., None]

    cdef bint takes_ids(self) noexcept:
        return self.model.num_ids > 0

    cdef fastrnn_status make_plan(self) except *:
        cdef size_t size
        cdef fastrnn_status status = fastrnn_model_plan_size(self.model.model, &self.batch, &size)
        if status != FASTRNN_OK:
            return status
        self.workspace.reserve(size)
        return fastrnn_model_plan_make(self.model.model, &self.batch, self.workspace.memory, self.workspace.size, &self.plan)

    cdef fastrnn_status run_plan(self) noexcept nogil:
        return fastrnn_model_plan_run(self.plan)

    cdef fastrnn_status reset_slots(self, int64_t count, const int64_t *slots) noexcept:
        return fastrnn_model_store_reset(self.model.model, self.store, count, slots)

    cdef fastrnn_status get_slot(self, int64_t op, const int64_t *slot, cnp.ndarray h, cnp.ndarray c) except *:
        if fastrnn_model_layer(self.model.model, op) == NULL:
            return FASTRNN_ERROR_ARGUMENT
        _, _, hidden_size, h_size, num_layers, _ = self.model.shapes[op]
        check_block(h, "h", self.dtype, self.type_number, num_layers, 1, h_size, True)
        check_block(c, "c", self.dtype, self.type_number, num_layers, 1, hidden_size, True)
        return fastrnn_model_store_get(self.model.model, self.store, op, 1, slot, <void *>address(h), <void *>address(c))

    cdef fastrnn_status snapshot_size(self, int64_t count, size_t *size) noexcept:
        return fastrnn_model_snapshot_size(self.model.model, self.store, count, size)

    cdef fastrnn_status save_snapshot(self, int64_t count, const int64_t *slots, void *snapshot) noexcept:
        return fastrnn_model_snapshot_save(self.model.model, self.store, count, slots, snapshot)

    cdef fastrnn_status restore_snapshot(self, int64_t count, const int64_t *slots, const void *snapshot,
                                         size_t size) noexcept:
        return fastrnn_model_snapshot_restore(self.model.model, self.store, count, slots, snapshot, size)

    cdef owner(self):
        return "model", self.model.fingerprint, self.model.state_size
