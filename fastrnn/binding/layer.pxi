# The prepared layer, and the calls that run a batch through it.

cdef class Cells:
    """A layer's configuration and cells as the core takes them."""
    cdef fastrnn_config config
    cdef fastrnn_cell *cells
    cdef list arrays  # whose memory they refer to

    def __cinit__(self, kind, dtype, int64_t input_size, int64_t hidden_size, int64_t proj_size, int64_t num_layers,
                  bint bidirectional, bint reverse, weight_dtype, list cells):
        cdef fastrnn_config *config = &self.config
        cdef fastrnn_cell *cell
        cdef int64_t num_directions = 2 if bidirectional else 1, h_size = proj_size or hidden_size
        dtype = np.dtype(dtype)
        units = NUM_GATES[kind] * hidden_size
        config.struct_size = sizeof(fastrnn_config)
        config.kind = KINDS[kind]
        config.dtype = FASTRNN_FLOAT32 if dtype == np.float32 else FASTRNN_FLOAT64
        config.input_size, config.hidden_size, config.proj_size = input_size, hidden_size, proj_size
        config.num_layers, config.bidirectional, config.reverse = num_layers, bidirectional, reverse
        config.weight_dtype = WEIGHT_DTYPES[weight_dtype or "float32"]
        if len(cells) != num_layers * num_directions:
            raise ValueError(f"cells has {len(cells)} entries, wanted {num_layers * num_directions}")
        self.cells = <fastrnn_cell *>PyMem_RawMalloc(len(cells) * sizeof(fastrnn_cell))
        if self.cells == NULL:
            raise MemoryError("no memory for the layer's description")
        memset(self.cells, 0, len(cells) * sizeof(fastrnn_cell))
        self.arrays = [arrays for arrays, _, _, _, _ in cells]
        for i, (arrays, activations, clips, coupled, linear_before_reset) in enumerate(cells):
            cell = &self.cells[i]
            cell.struct_size = sizeof(fastrnn_cell)
            width = input_size if i < num_directions else num_directions * h_size
            for array, name, rows, columns in (
                (arrays[0], "weight_ih", units, width),
                (arrays[1], "weight_hh", units, h_size),
                (arrays[2], "bias_ih", 1, units),
                (arrays[3], "bias_hh", 1, units),
                (arrays[4], "weight_hr", h_size, hidden_size),
                (arrays[5], "peephole", 3, hidden_size),
            ):
                check_block(array, f"{name} of cell {i}", dtype, dtype.num, 1, rows, columns, False)
            cell.weight_ih, cell.weight_hh = address(arrays[0]), address(arrays[1])
            cell.bias_ih, cell.bias_hh = address(arrays[2]), address(arrays[3])
            cell.weight_hr, cell.peephole = address(arrays[4]), address(arrays[5])
            for j, (name, alpha, beta) in enumerate(activations[:5]):
                cell.options.activations[j] = fastrnn_activation(ACTIVATIONS[name], alpha, beta)
            cell.options.cell_clip, cell.options.gate_clip, cell.options.proj_clip = clips
            cell.options.coupled, cell.options.reset_before = coupled, not linear_before_reset

    def __dealloc__(self):
        PyMem_RawFree(self.cells)

    cdef tuple sizes(self):
        """Gates, I, H, P, layers and directions."""
        cdef fastrnn_config *config = &self.config
        num_gates = {number: NUM_GATES[kind] for kind, number in KINDS.items()}[config.kind]
        h_size = config.proj_size or config.hidden_size
        return (num_gates, config.input_size, config.hidden_size, h_size, config.num_layers, 2 if config.bidirectional else 1)


cdef list unpack_layer(const fastrnn_layer *layer, dtype, tuple sizes):
    """The cells of a layer as arguments of its constructor; `sizes` as Cells.sizes gives them."""
    cdef int64_t num_gates, input_size, hidden_size, h_size, num_layers, num_directions
    cdef fastrnn_cell_arrays arrays
    cdef fastrnn_cell cell
    cdef fastrnn_cell_options *options
    num_gates, input_size, hidden_size, h_size, num_layers, num_directions = sizes
    cells = []
    arrays.struct_size, cell.struct_size = sizeof(fastrnn_cell_arrays), sizeof(fastrnn_cell)
    rows = num_gates * hidden_size
    for i in range(num_layers * num_directions):
        width = input_size if i < num_directions else num_directions * h_size
        shapes = ((rows, width), (rows, h_size), (rows,), (rows,), (h_size, hidden_size), (3, hidden_size))
        parts = [np.empty(shape, dtype) for shape in shapes]
        arrays.weight_ih, arrays.weight_hh = <void *>address(parts[0]), <void *>address(parts[1])
        arrays.bias_ih, arrays.bias_hh = <void *>address(parts[2]), <void *>address(parts[3])
        arrays.weight_hr, arrays.peephole = <void *>address(parts[4]), <void *>address(parts[5])
        raise_status(fastrnn_layer_unpack(layer, i, &arrays, &cell))
        if cell.weight_hr == NULL:
            parts[4] = None
        if cell.peephole == NULL:
            parts[5] = None
        options = &cell.options
        activations = [
            (ACTIVATION_NAMES[options.activations[j].name], options.activations[j].alpha, options.activations[j].beta)
            for j in range(num_gates + (num_gates == NUM_GATES["lstm"]))
        ]
        clips = (options.cell_clip, options.gate_clip, options.proj_clip)
        cells.append((tuple(parts), activations, clips, bool(options.coupled), not options.reset_before))
    return cells


cdef class Layer:
    """A prepared layer. The Python layers check what arguments mean; this class checks that their memory may be used."""
    cdef fastrnn_layer *layer
    cdef readonly int64_t num_layers, hidden_size, h_size, num_directions, input_size
    cdef readonly bint is_lstm
    cdef int num_gates
    cdef readonly object dtype
    cdef int type_number
    cdef Workspaces workspaces

    def __cinit__(self, kind, dtype, int64_t input_size, int64_t hidden_size, int64_t proj_size, int64_t num_layers,
                  bint bidirectional, bint reverse, weight_dtype, list cells, isa, bint use_blas):
        cdef Cells prepared = Cells(kind, dtype, input_size, hidden_size, proj_size, num_layers, bidirectional, reverse,
                                    weight_dtype, cells)
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
        self.workspaces = Workspaces()
        if use_blas:
            load_blas()
        with nogil:
            status = fastrnn_layer_create(&prepared.config, prepared.cells, isa_pointer, &blas if use_blas else NULL,
                                          &self.layer)
        raise_status(status)

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
        sizes = (self.num_gates, self.input_size, self.hidden_size, self.h_size, self.num_layers, self.num_directions)
        return unpack_layer(self.layer, self.dtype, sizes)

    cdef int check_states(self, h, c, int64_t num_rows, bint writes) except -1:
        cdef int64_t count = self.num_layers * self.num_directions
        check_block(h, "h", self.dtype, self.type_number, count, num_rows, self.h_size, writes)
        check_block(c, "c", self.dtype, self.type_number, count, num_rows, self.hidden_size, writes)
        return 0

    def run(self, x, y, schedule, h0, c0, hn, cn, Unrolled unrolled=None, past_end=None, int num_threads=0):
        """Run a batch.

        x, y : (B, T, width), or packed (N, width), or a list of (T_i, width)
        schedule : a Schedule, or None for rows of equal length
        past_end : None, or what to write to y (B, T, D*P) past the rows' ends
        num_threads : 0 for the number that set_num_threads set
        """
        cdef fastrnn_batch batch
        cdef fastrnn_plan plan
        cdef fastrnn_status status
        cdef Pool pool = pool_of(num_threads)  # which another thread may replace
        cdef RowPointers x_rows, y_rows
        cdef Workspace workspace = None
        start_batch(&batch, x, schedule, self.dtype, self.type_number)
        plan.struct_size = sizeof(plan)
        if unrolled is not None:
            batch.unrolled = unrolled.unrolled
        if isinstance(x, list) != isinstance(y, list):
            raise ValueError(f"y is {type(y).__name__}, but x is {type(x).__name__}")
        check_vectors(x, "x", self.dtype, self.type_number, &batch, batch.packed, self.input_size, False, NULL)
        check_vectors(y, "y", self.dtype, self.type_number, &batch, batch.packed, self.num_directions * self.h_size, True, NULL)
        self.check_states(h0, c0, batch.num_rows, False)
        self.check_states(hn, cn, batch.num_rows, True)
        if past_end is not None:
            set_past_end(&batch, y, past_end)
        batch.h0, batch.c0 = address(h0), address(c0)
        batch.hn, batch.cn = <void *>address(hn), <void *>address(cn)
        batch.pool = pool.pool
        x_rows, y_rows = RowPointers(x), RowPointers(y)
        set_view(&batch.x, x, x_rows)
        set_view(&batch.y, y, y_rows)
        raise_status(fastrnn_plan_make(self.layer, &batch, &plan))
        try:
            workspace = self.workspaces.borrow(plan.workspace_size)
            with nogil:
                status = fastrnn_plan_run(&plan, workspace.memory)
            raise_status(status)
        finally:
            self.workspaces.give_back(workspace)
