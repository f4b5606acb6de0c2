# cython: language_level=3, boundscheck=False, wraparound=False
"""Live streams of a model in Cython, stepped without the GIL: other Python threads run meanwhile.

    cd examples/cython && python setup.py build_ext --inplace

Each stream has a slot of one store.
"""

cimport fastrnn
from libc.stdint cimport int64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset
from posix.stdlib cimport posix_memalign


cdef int check(fastrnn.fastrnn_status status) except -1:
    if status != fastrnn.FASTRNN_OK:
        raise ValueError(fastrnn.fastrnn_last_error().decode())
    return 0


cdef class Streams:
    """Streams of a model that `save` wrote.

    Parameters
    ----------
    path : bytes
    capacity : how many streams
    """

    cdef fastrnn.fastrnn_model *model
    cdef fastrnn.fastrnn_model_plan *plan
    cdef fastrnn.fastrnn_batch batch
    cdef void *store
    cdef void *memory
    cdef readonly int64_t capacity, input_size, output_size

    def __cinit__(self, bytes path, int64_t capacity):
        cdef fastrnn.fastrnn_model_info info
        cdef size_t size
        check(fastrnn.fastrnn_model_load(path, NULL, &self.model))
        info.struct_size = sizeof(info)
        check(fastrnn.fastrnn_model_describe(self.model, &info))
        self.capacity, self.input_size, self.output_size = capacity, info.input_size, info.output_size
        check(fastrnn.fastrnn_model_store_size(self.model, capacity, &size))
        if posix_memalign(&self.store, 64, size):
            raise MemoryError
        check(fastrnn.fastrnn_model_store_init(self.model, capacity, self.store))
        memset(&self.batch, 0, sizeof(self.batch))
        self.batch.struct_size = sizeof(self.batch)
        self.batch.num_rows, self.batch.num_steps, self.batch.store = capacity, 1, self.store
        self.batch.x.row_stride, self.batch.y.row_stride = self.input_size, self.output_size
        check(fastrnn.fastrnn_model_plan_size(self.model, &self.batch, &size))
        self.memory = malloc(size)
        if self.memory == NULL:
            raise MemoryError
        check(fastrnn.fastrnn_model_plan_make(self.model, &self.batch, self.memory, size, &self.plan))

    def __dealloc__(self):
        fastrnn.fastrnn_model_destroy(self.model)
        free(self.store)
        free(self.memory)

    def run(self, const float[:, :, ::1] x, float[:, :, ::1] y):
        """Step every stream through its row: x (T, capacity, I) -> y (T, capacity, O), without the GIL."""
        cdef int64_t step, steps = x.shape[0]
        cdef fastrnn.fastrnn_status status = fastrnn.FASTRNN_OK
        if (x.shape[1], x.shape[2]) != (self.capacity, self.input_size):
            raise ValueError(f"x has {x.shape[1]} rows of {x.shape[2]}, wanted {self.capacity} of {self.input_size}")
        if (y.shape[0], y.shape[1], y.shape[2]) != (steps, self.capacity, self.output_size):
            raise ValueError("y has another shape than (T, capacity, O)")
        with nogil:
            for step in range(steps):
                self.batch.x.base = <void *>&x[step, 0, 0]
                self.batch.y.base = <void *>&y[step, 0, 0]
                status = fastrnn.fastrnn_model_plan_run(self.plan)
                if status != fastrnn.FASTRNN_OK:
                    break
        if status != fastrnn.FASTRNN_OK:
            raise ValueError(fastrnn.fastrnn_status_message(status).decode())
