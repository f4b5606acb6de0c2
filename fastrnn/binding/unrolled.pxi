# Plans for a fixed number of steps.

cdef class Unrolled:
    """A plan for exactly num_steps steps."""
    cdef fastrnn_unrolled *plan
    cdef Layer owner
    cdef readonly int64_t num_steps

    def __cinit__(self, Layer layer not None, int64_t num_steps):
        self.owner = layer
        self.num_steps = num_steps
        raise_status(fastrnn_unrolled_create(layer.layer, num_steps, &self.plan))

    def __dealloc__(self):
        fastrnn_unrolled_destroy(self.plan)
