# Exceptions for the core's status codes.

cdef int pending_exception() except -1:
    return -1


class IdError(ValueError):
    """An id is not the index of a row of the embedding; the caller finds out which one."""


cdef int raise_status(fastrnn_status status) except -1:
    if status == FASTRNN_OK:
        return 0
    if status == FASTRNN_ERROR_INTERRUPTED:
        return pending_exception()
    message = fastrnn_status_message(status).decode()
    if status == FASTRNN_ERROR_MEMORY:
        raise MemoryError(message)
    if status == FASTRNN_ERROR_FORKED:
        raise RuntimeError(message)
    if status == FASTRNN_ERROR_ID:
        raise IdError(message)
    raise ValueError(message)
