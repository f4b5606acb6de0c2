# The prepared layer, and the calls that run a batch through it.

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
                  bint bidirectional, bint reverse, weight_dtype, list cells, isa, bint use_blas):
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
        memset(&config, 0, sizeof(config))
        config.struct_size = sizeof(fastrnn_config)
        config.kind = KINDS[kind]
        config.dtype = FASTRNN_FLOAT32 if self.dtype == np.float32 else FASTRNN_FLOAT64
        config.input_size, config.hidden_size, config.proj_size = input_size, hidden_size, proj_size
        config.num_layers, config.bidirectional, config.reverse = num_layers, bidirectional, reverse
        config.weight_dtype = WEIGHT_DTYPES[weight_dtype or "float32"]
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
        """The cells as arguments of the constructor; if a cell adds its two biases, bias_ih is their sum and bias_hh zero."""
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
        """Check that an array is None, or C-contiguous with parts * rows * columns elements."""
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

    cdef int check_vectors(self, arrays, str name, const fastrnn_batch *batch, int64_t width, bint writes) except -1:
        """Check that the arrays have a form that set_view takes, and that they have every step of the batch."""
        cdef cnp.ndarray array
        cdef int64_t row, step, unused
        if isinstance(arrays, list):
            if batch.lengths == NULL or len(<list>arrays) != batch.num_rows:
                raise ValueError(f"{name} is a list of {len(<list>arrays)}, wanted {batch.num_rows} with their lengths")
            for row in range(batch.num_rows):
                one = (<list>arrays)[batch.row_indices[row]]
                check_array(one, name, self.dtype, self.type_number, 2, writes)
                array = <cnp.ndarray>one
                if (not cnp.PyArray_ISCARRAY_RO(array) or cnp.PyArray_DIM(array, 0) < batch.lengths[row]
                        or cnp.PyArray_DIM(array, 1) != width):
                    raise ValueError(f"{name} holds {describe(array)}, wanted ({batch.lengths[row]}, {width})")
            return 0
        check_array(arrays, name, self.dtype, self.type_number, 2 if batch.packed else 3, writes)
        array = <cnp.ndarray>arrays
        if not batch.packed:
            if (cnp.PyArray_DIM(array, 0) != batch.num_rows or cnp.PyArray_DIM(array, 1) < batch.num_steps
                    or cnp.PyArray_DIM(array, 2) != width):
                raise ValueError(f"{name} is {describe(array)}, wanted ({batch.num_rows}, {batch.num_steps}, {width})")
            return 0
        if batch.lengths == NULL or not cnp.PyArray_ISCARRAY_RO(array) or cnp.PyArray_DIM(array, 1) != width:
            raise ValueError(f"{name} is {describe(array)}, wanted C-contiguous (N, {width})")
        unused = cnp.PyArray_DIM(array, 0)
        for step in range(batch.num_steps):
            if not 0 <= batch.batch_sizes[step] <= unused:
                raise ValueError(f"batch_sizes[{step}] is {batch.batch_sizes[step]}, but {name} has {unused} steps left")
            unused -= batch.batch_sizes[step]
        return 0

    cdef Workspace borrow(self, size_t size):
        cdef Workspace workspace = self.spare.pop() if self.spare else Workspace()
        workspace.reserve(size)
        return workspace

    cdef void give_back(self, Workspace workspace):
        if workspace.size <= KEPT_BYTES and len(self.spare) < 4:
            self.spare.append(workspace)

    def run(self, x, y, schedule, h0, c0, hn, cn, Unrolled unrolled=None, past_end=None):
        """Run a batch.

        x, y : (B, T, width), or packed (N, width), or a list of (T_i, width)
        schedule : a Schedule, or None for rows of equal length
        past_end : None, or what to write to y (B, T, D*P) past the rows' ends
        """
        cdef fastrnn_batch batch
        cdef fastrnn_plan plan
        cdef fastrnn_status status
        cdef Pool pool = shared_pool  # which another thread may replace
        cdef void **rows = NULL
        cdef Workspace workspace = None
        memset(&batch, 0, sizeof(batch))
        batch.struct_size, plan.struct_size = sizeof(batch), sizeof(plan)
        if unrolled is not None:
            batch.unrolled = unrolled.unrolled
        if schedule is not None:
            set_schedule(&batch, schedule)
            batch.packed = cnp.PyArray_Check(x) and cnp.PyArray_NDIM(<cnp.ndarray>x) == 2
        else:
            check_array(x, "x", self.dtype, self.type_number, 3, False)
            batch.num_rows, batch.num_steps = cnp.PyArray_DIM(<cnp.ndarray>x, 0), cnp.PyArray_DIM(<cnp.ndarray>x, 1)
        if isinstance(x, list) != isinstance(y, list):
            raise ValueError(f"y is {type(y).__name__}, but x is {type(x).__name__}")
        self.check_vectors(x, "x", &batch, self.input_size, False)
        self.check_vectors(y, "y", &batch, self.num_directions * self.h_size, True)
        self.check_states(h0, c0, batch.num_rows, False)
        self.check_states(hn, cn, batch.num_rows, True)
        if past_end is not None:
            if isinstance(y, list) or batch.packed:
                raise ValueError("past_end is given, but only y (B, T, D*P) has steps past a row's end")
            batch.past_end = PAST_ENDS[past_end]
            batch.padded_steps = cnp.PyArray_DIM(<cnp.ndarray>y, 1)
        batch.h0, batch.c0 = address(h0), address(c0)
        batch.hn, batch.cn = <void *>address(hn), <void *>address(cn)
        batch.pool = pool.pool
        batch.interrupted = check_signals
        try:
            if isinstance(x, list):
                rows = <void **>PyMem_RawMalloc(2 * (batch.num_rows + 1) * sizeof(void *))
                if rows == NULL:
                    raise MemoryError(f"no memory for {batch.num_rows} row pointers")
            set_view(&batch.x, x, rows)
            set_view(&batch.y, y, rows + batch.num_rows if rows != NULL else NULL)
            raise_status(fastrnn_plan_make(self.layer, &batch, &plan))
            workspace = self.borrow(plan.workspace_size)
            with nogil:
                status = fastrnn_plan_run(&plan, workspace.memory)
            raise_status(status)
        finally:
            PyMem_RawFree(rows)
            if workspace is not None:
                self.give_back(workspace)
