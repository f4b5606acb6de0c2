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


cdef class Workspaces:
    """The workspaces of earlier calls, for later ones."""
    cdef list spare

    def __cinit__(self):
        self.spare = []

    cdef Workspace borrow(self, size_t size):
        cdef Workspace workspace = self.spare.pop() if self.spare else Workspace()
        workspace.reserve(size)
        return workspace

    cdef void give_back(self, Workspace workspace):
        if workspace is not None and workspace.size <= KEPT_BYTES and len(self.spare) < 4:
            self.spare.append(workspace)
