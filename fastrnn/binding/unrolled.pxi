# The fixed-length path.

cdef class Unrolled:
    """The list of all steps of all cells, for exactly num_steps steps."""
    cdef fastrnn_unrolled *unrolled
    cdef Layer layer  # whose cells the core refers to
    cdef readonly int64_t num_steps

    def __cinit__(self, Layer layer not None, int64_t num_steps):
        self.layer = layer
        self.num_steps = num_steps
        raise_status(fastrnn_unrolled_create(layer.layer, num_steps, &self.unrolled))

    def __dealloc__(self):
        fastrnn_unrolled_destroy(self.unrolled)
