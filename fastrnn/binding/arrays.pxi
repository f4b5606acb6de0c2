# Checks of callers' arrays by their C structures, whatever a subclass reports.

cdef const void *address(array) noexcept:
    return NULL if array is None else cnp.PyArray_DATA(<cnp.ndarray>array)


cdef const int64_t *integers(array, str name, int64_t count) except? NULL:
    """The data of `count` int64."""
    check_array(array, name, "int64", cnp.NPY_INT64, 1, False)
    if cnp.PyArray_DIM(<cnp.ndarray>array, 0) != count or not cnp.PyArray_ISCARRAY_RO(<cnp.ndarray>array):
        raise ValueError(f"{name} is {describe(array)}, wanted {count} adjacent numbers")
    return <const int64_t *>cnp.PyArray_DATA(<cnp.ndarray>array)


cdef int64_t count_of(array, str name) except -1:
    if not cnp.PyArray_Check(array) or cnp.PyArray_NDIM(<cnp.ndarray>array) != 1:
        raise TypeError(f"{name} is {describe(array)}, wanted one dimension of integers")
    return cnp.PyArray_DIM(<cnp.ndarray>array, 0)


cdef str describe(array):
    """Describe an array by its C structure, whatever a subclass reports."""
    if not cnp.PyArray_Check(array):
        return type(array).__name__
    base = np.asarray(array)
    return f"{base.dtype} of shape {base.shape} and strides {base.strides}"


cdef int check_array(array, str name, dtype, int type_number, int ndim, bint writes) except -1:
    """Check for an aligned array of one type in native byte order, with adjacent elements along its last axis."""
    cdef cnp.ndarray checked
    cdef int axis
    if not cnp.PyArray_Check(array):
        raise TypeError(f"{name} is {describe(array)}, wanted an array")
    checked = <cnp.ndarray>array
    if (cnp.PyArray_TYPE(checked) != type_number or not cnp.PyArray_ISNOTSWAPPED(checked)
            or not cnp.PyArray_ISALIGNED(checked) or (writes and not cnp.PyArray_ISWRITEABLE(checked))):
        raise TypeError(f"{name} is {describe(array)}, wanted aligned {'writeable ' if writes else ''}{dtype}")
    if cnp.PyArray_NDIM(checked) != ndim:
        raise ValueError(f"{name} is {describe(array)}, wanted {ndim} dimensions")
    for axis in range(ndim if cnp.PyArray_SIZE(checked) else 0):
        if (cnp.PyArray_STRIDE(checked, axis) % cnp.PyArray_ITEMSIZE(checked)
                or (axis == ndim - 1 and cnp.PyArray_DIM(checked, axis) > 1
                    and cnp.PyArray_STRIDE(checked, axis) != cnp.PyArray_ITEMSIZE(checked))):
            raise ValueError(f"{name} is {describe(array)}, wanted adjacent elements")
    return 0


cdef int check_block(array, str name, dtype, int type_number, int64_t parts, int64_t rows, int64_t columns,
                     bint writes) except -1:
    """Check that an array is None, or C-contiguous with parts * rows * columns elements."""
    cdef cnp.ndarray checked
    if array is None:
        return 0
    if cnp.PyArray_Check(array):
        checked = <cnp.ndarray>array
        if (cnp.PyArray_TYPE(checked) == type_number and cnp.PyArray_ISCARRAY_RO(checked)
                and (not writes or cnp.PyArray_ISWRITEABLE(checked))
                and cnp.PyArray_SIZE(checked) == parts * rows * columns):
            return 0
    error = ValueError if cnp.PyArray_Check(array) else TypeError
    raise error(f"{name} is {describe(array)}, wanted a C-contiguous {'writeable ' if writes else ''}{dtype} "
                f"array of shape {(parts, rows, columns)}")
