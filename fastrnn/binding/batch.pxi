# Callers' arrays as the core's views of a batch.

cdef void set_view(fastrnn_view *view, arrays, const int64_t *indices, void **rows, const int64_t *step_offsets) noexcept:
    """Set a view of an array (B, T, width) with any outer strides, a list of (T_i, width), or packed (N, width)."""
    cdef Py_ssize_t i
    cdef cnp.ndarray array
    view.base = NULL
    view.rows = NULL
    view.step_offsets = NULL
    if isinstance(arrays, list):
        view.rows = rows
        view.row_stride = 0
        view.step_stride = 1
        for i in range(len(arrays)):
            array = <cnp.ndarray>arrays[i if indices == NULL else indices[i]]
            rows[i] = cnp.PyArray_DATA(array)
            view.step_stride = cnp.PyArray_DIM(array, 1)
        return
    array = <cnp.ndarray>arrays
    view.base = cnp.PyArray_DATA(array)
    if step_offsets != NULL:
        view.step_offsets = step_offsets
        view.row_stride = view.step_stride = cnp.PyArray_DIM(array, 1)
        return
    view.row_stride = cnp.PyArray_STRIDE(array, 0) // cnp.PyArray_ITEMSIZE(array)
    view.step_stride = cnp.PyArray_STRIDE(array, 1) // cnp.PyArray_ITEMSIZE(array)
    if indices != NULL:
        view.rows = rows
        for i in range(cnp.PyArray_DIM(array, 0)):
            rows[i] = <char *>view.base + indices[i] * cnp.PyArray_STRIDE(array, 0)
