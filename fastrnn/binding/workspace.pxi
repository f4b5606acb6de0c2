# The scratch memory of calls.

DEF KEPT_BYTES = 1 << 22  # larger workspaces are freed after a call


cdef class Workspace:
    """A block of scratch memory."""
    cdef void *memory
    cdef size_t size

    def __dealloc__(self):
        PyMem_RawFree(self.memory)

    cdef int reserve(self, size_t size) except -1:
        if size > self.size:
            PyMem_RawFree(self.memory)
            self.size = 0
            self.memory = PyMem_RawMalloc(size)
            if self.memory == NULL:
                raise MemoryError(f"no memory for a workspace of {size} bytes")
            self.size = size
        return 0
