# The reader of our own files.

cdef extern from "core/io/model_file.h" nogil:
    ctypedef struct fr_file:
        pass
    fastrnn_status fr_file_open(const void *, size_t, fr_file *)
    void fr_file_close(fr_file *)


def check_model_file(const unsigned char[::1] data not None):
    """Check the bytes of a file that `save` wrote: all but the values of its arrays.

    Raises
    ------
    ValueError
        It is damaged, of another version, or its configuration and arrays do not agree; the message lists the reasons.
    """
    cdef fr_file file
    cdef fastrnn_status status
    cdef size_t size = data.shape[0]
    cdef const void *bytes = &data[0] if size else NULL
    with nogil:
        status = fr_file_open(bytes, size, &file)
    if status != FASTRNN_OK:
        message = fastrnn_last_error().decode("ascii", "backslashreplace")
        raise (MemoryError if status == FASTRNN_ERROR_MEMORY else ValueError)(message)
    fr_file_close(&file)
