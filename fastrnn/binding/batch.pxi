# Conversion of callers' arrays to the members of fastrnn_batch.

cdef class RowPointers:
    """The addresses of the arrays of a list; NULL of anything else."""
    cdef void **rows

    def __cinit__(self, arrays):
        cdef Py_ssize_t i
        if isinstance(arrays, list):
            self.rows = <void **>PyMem_RawMalloc((len(<list>arrays) + 1) * sizeof(void *))
            if self.rows == NULL:
                raise MemoryError(f"no memory for {len(arrays)} row pointers")
            for i in range(len(<list>arrays)):
                self.rows[i] = cnp.PyArray_DATA(<cnp.ndarray>(<list>arrays)[i])

    def __dealloc__(self):
        PyMem_RawFree(self.rows)


cdef void set_view(fastrnn_view *view, arrays, RowPointers pointers) noexcept:
    """Set a view of an array (B, T, width) with any outer strides, of packed (N, width), or of a list of (T_i, width)."""
    cdef cnp.ndarray array
    if isinstance(arrays, list):
        view.rows = pointers.rows
        view.step_stride = cnp.PyArray_DIM(<cnp.ndarray>arrays[0], 1) if arrays else 1
        return
    array = <cnp.ndarray>arrays
    view.base = cnp.PyArray_DATA(array)
    if cnp.PyArray_NDIM(array) == 2:
        view.row_stride = cnp.PyArray_DIM(array, 1)
        return
    view.row_stride = cnp.PyArray_STRIDE(array, 0) // cnp.PyArray_ITEMSIZE(array)
    view.step_stride = cnp.PyArray_STRIDE(array, 1) // cnp.PyArray_ITEMSIZE(array)


cdef int start_batch(fastrnn_batch *batch, x, schedule, dtype, int type_number) except -1:
    """Set what a batch has besides its vectors. schedule: a Schedule, or None for rows of equal length, in an array x."""
    memset(batch, 0, sizeof(fastrnn_batch))
    batch.struct_size = sizeof(fastrnn_batch)
    batch.interrupted = check_signals
    if schedule is not None:
        set_schedule(batch, schedule)
        batch.packed = cnp.PyArray_Check(x) and cnp.PyArray_NDIM(<cnp.ndarray>x) == 2
    else:
        check_array(x, "x", dtype, type_number, 3, False)
        batch.num_rows, batch.num_steps = cnp.PyArray_DIM(<cnp.ndarray>x, 0), cnp.PyArray_DIM(<cnp.ndarray>x, 1)
    return 0


cdef int set_past_end(fastrnn_batch *batch, y, past_end) except -1:
    """Set what is written past the rows' ends of y (B, T, width)."""
    if isinstance(y, list) or cnp.PyArray_NDIM(<cnp.ndarray>y) != 3:
        raise ValueError("past_end is given, but only y (B, T, width) has steps past a row's end")
    batch.past_end = PAST_ENDS[past_end]
    batch.padded_steps = cnp.PyArray_DIM(<cnp.ndarray>y, 1)
    return 0


cdef int set_schedule(fastrnn_batch *batch, schedule) except -1:
    """Set the batch's lengths and order of rows. The schedule's arrays must outlive the call."""
    cdef int64_t row
    batch.num_rows = count_of(schedule.lengths, "lengths")
    batch.num_steps = count_of(schedule.batch_sizes, "batch_sizes")
    batch.lengths = integers(schedule.lengths, "lengths", batch.num_rows)
    batch.batch_sizes = integers(schedule.batch_sizes, "batch_sizes", batch.num_steps)
    batch.row_indices = integers(schedule.sorted_indices, "sorted_indices", batch.num_rows)
    for row in range(batch.num_rows):
        if not 0 <= batch.row_indices[row] < batch.num_rows:
            raise ValueError(f"sorted_indices[{row}] is {batch.row_indices[row]}, wanted 0 to {batch.num_rows - 1}")
    return 0


cdef int64_t steps_of(const fastrnn_model *model, int64_t steps) noexcept:
    """The steps of y, or without a model those of x, for a row of x of `steps` steps."""
    return steps if model == NULL else fastrnn_model_output_steps(model, steps)


cdef int check_vectors(arrays, str name, dtype, int type_number, const fastrnn_batch *batch, bint packed, int64_t width,
                       bint writes, const fastrnn_model *model) except -1:
    """Check that the arrays have a form that set_view takes, and every step of the batch.

    model : NULL, or for y the model whose results they are
    """
    cdef cnp.ndarray array
    cdef int64_t row, step, steps, unused
    if isinstance(arrays, list):
        if batch.lengths == NULL or len(<list>arrays) != batch.num_rows:
            raise ValueError(f"{name} is a list of {len(<list>arrays)}, wanted {batch.num_rows} with their lengths")
        for row in range(batch.num_rows):
            one = (<list>arrays)[batch.row_indices[row]]
            steps = steps_of(model, batch.lengths[row])
            check_array(one, name, dtype, type_number, 2, writes)
            array = <cnp.ndarray>one
            if (not cnp.PyArray_ISCARRAY_RO(array) or cnp.PyArray_DIM(array, 0) < steps
                    or cnp.PyArray_DIM(array, 1) != width):
                raise ValueError(f"{name} holds {describe(array)}, wanted ({steps}, {width})")
        return 0
    check_array(arrays, name, dtype, type_number, 2 if packed else 3, writes)
    array = <cnp.ndarray>arrays
    if not packed:
        steps = steps_of(model, batch.num_steps)
        if (cnp.PyArray_DIM(array, 0) != batch.num_rows or cnp.PyArray_DIM(array, 1) < steps
                or cnp.PyArray_DIM(array, 2) != width):
            raise ValueError(f"{name} is {describe(array)}, wanted ({batch.num_rows}, {steps}, {width})")
        return 0
    if batch.lengths == NULL or not cnp.PyArray_ISCARRAY_RO(array) or cnp.PyArray_DIM(array, 1) != width:
        raise ValueError(f"{name} is {describe(array)}, wanted C-contiguous (N, {width})")
    unused = cnp.PyArray_DIM(array, 0)
    for step in range(batch.num_steps if model == NULL else 0):
        if not 0 <= batch.batch_sizes[step] <= unused:
            raise ValueError(f"batch_sizes[{step}] is {batch.batch_sizes[step]}, but {name} has {unused} steps left")
        unused -= batch.batch_sizes[step]
    for row in range(0 if model == NULL else batch.num_rows):
        steps = steps_of(model, batch.lengths[row])
        if not 0 <= steps <= unused:
            raise ValueError(f"lengths[{row}] is {batch.lengths[row]}: {steps} steps, but {name} has {unused} left")
        unused -= steps
    return 0
