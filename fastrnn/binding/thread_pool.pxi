# The thread pool that all calls share, and those of calls that ask for another number of threads.

cdef extern from "core/parallel/pool.h":
    int FR_MOST_THREADS

cdef int64_t pools_made = 0


cdef class Pool:
    """A thread pool, used by one call at a time."""
    cdef fastrnn_pool *pool
    cdef readonly int num_threads
    cdef double threshold
    cdef int64_t number  # unique: no other thread pool ever has the same

    def __cinit__(self, int num_threads, double threshold):
        global pools_made
        pools_made += 1
        self.number = pools_made
        self.num_threads, self.threshold = num_threads, threshold
        raise_status(fastrnn_pool_create(num_threads, &self.pool))
        fastrnn_pool_set_threshold(self.pool, threshold)

    def __dealloc__(self):
        with nogil:
            fastrnn_pool_destroy(self.pool)


cdef Pool shared_pool = Pool(1, 1)
cdef dict other_pools = {}  # by their numbers of threads


cdef Pool pool_of(int num_threads):
    """The shared thread pool if num_threads is 0, else one of that size, or of the largest size."""
    cdef Pool pool = shared_pool
    num_threads = min(num_threads, FR_MOST_THREADS)
    if num_threads == 0 or num_threads == pool.num_threads:
        return pool
    other = other_pools.get(num_threads)
    if other is None:
        other = other_pools.setdefault(num_threads, Pool(num_threads, pool.threshold))
    return other


def set_num_threads(int num_threads, double threshold=1):
    """Give calls that begin from now on a thread pool of this size; threshold as in fastrnn_pool_set_threshold."""
    global shared_pool
    shared_pool = Pool(num_threads, threshold)
    other_pools.clear()


def get_num_threads():
    return shared_pool.num_threads
