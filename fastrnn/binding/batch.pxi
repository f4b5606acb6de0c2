# Conversion of callers' arrays to the members of fastrnn_batch.

cdef void set_view(fastrnn_view *view, arrays, void **rows) noexcept:
    """Set a view of an array (B, T, width) with any outer strides, of packed (N, width), or of a list of (T_i, width).

    The addresses of a list's arrays are written to `rows`.
    """
    cdef Py_ssize_t i
    cdef cnp.ndarray array
    if isinstance(arrays, list):
        view.rows = rows
        view.step_stride = 1
        for i in range(len(arrays)):
            array = <cnp.ndarray>arrays[i]
            rows[i] = cnp.PyArray_DATA(array)
            view.step_stride = cnp.PyArray_DIM(array, 1)
        return
    array = <cnp.ndarray>arrays
    view.base = cnp.PyArray_DATA(array)
    if cnp.PyArray_NDIM(array) == 2:
        view.row_stride = cnp.PyArray_DIM(array, 1)
        return
    view.row_stride = cnp.PyArray_STRIDE(array, 0) // cnp.PyArray_ITEMSIZE(array)
    view.step_stride = cnp.PyArray_STRIDE(array, 1) // cnp.PyArray_ITEMSIZE(array)


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
