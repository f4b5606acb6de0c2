# Sessions of a stream pool: each is a slot of a stream's store, and a run computes those of any sessions as one ragged batch.

cdef class BaseSession:
    """One slot. All methods but `open` raise if the session is closed, or in a running call."""
    cdef BaseStream stream
    cdef readonly object pool
    cdef int64_t slot  # -1: the session is closed
    cdef bint busy

    def __cinit__(self, pool, BaseStream stream not None, int64_t slot):
        if not 0 <= slot < stream.batch_size:
            raise ValueError(f"slot is {slot}, but the pool has {stream.batch_size}")
        self.pool, self.stream, self.slot = pool, stream, slot

    @property
    def closed(self):
        """Whether :meth:`close` was called."""
        return self.slot < 0

    cdef int check(self) except -1:
        if self.slot < 0:
            raise ValueError("the session is closed")
        if self.busy:
            raise RuntimeError("the session is in a running call")
        return 0

    def take_slot(self):
        """Close the session; return its slot, or -1 if it is closed: of several threads one gets the slot."""
        if self.slot >= 0:
            self.check()
        slot, self.slot = self.slot, -1
        return slot

    def reset(self):
        """Set the state to zeros.

        Raises
        ------
        ValueError
            The session is closed.
        RuntimeError
            The session is in a running call.
        """
        self.check()
        raise_status(self.stream.reset_slots(1, &self.slot))

    def snapshot(self):
        """The state as bytes: those of a stream of one row in the same state.

        Raises
        ------
        ValueError
            The session is closed.
        RuntimeError
            The session is in a running call.
        """
        self.check()
        return self.stream.take_snapshot(1, &self.slot)

    def restore(self, bytes snapshot not None):
        """Restore a snapshot of a session, or of a stream of one row, of the same layer or model.

        Raises
        ------
        ValueError
            The bytes are not a snapshot, or one of other weights or another number of rows; or the session is closed. The
            state is unchanged.
        RuntimeError
            The session is in a running call.
        """
        self.check()
        self.stream.put_snapshot(snapshot, 1, &self.slot)

    def get_state(self, int64_t op, cnp.ndarray h, cnp.ndarray c):
        """Copy the state of a layer, or of a model's operation `op`, to h (L, 1, P) and c (L, 1, H)."""
        self.check()
        raise_status(self.stream.get_slot(op, &self.slot, h, c))


cdef list session_chunks(BaseStream stream, list chunks, casting):
    """The chunks as C-contiguous arrays of the type that the core reads; the stream's arrays themselves where possible."""
    cdef list arrays = []
    cdef cnp.ndarray array
    cdef Py_ssize_t i
    for i in range(len(chunks)):
        chunk = chunks[i]
        if casting is SAFE and type(chunk) is cnp.ndarray:
            array = <cnp.ndarray>chunk
            if (cnp.PyArray_TYPE(array) == stream.type_number and cnp.PyArray_NDIM(array) == 2
                    and cnp.PyArray_DIM(array, 1) == stream.input_size and cnp.PyArray_ISCARRAY_RO(array)
                    and stream.stride == 1 and not stream.takes_ids()):
                arrays.append(array)
                continue
        arrays.append(stream.take_chunk(chunk, f"the chunk of pairs[{i}]", casting))
    return arrays


cdef int check_usable(BaseSession session, Py_ssize_t i) except -1:
    """As `check`, for the session of pairs[i]."""
    if session.slot < 0:
        raise ValueError(f"the session of pairs[{i}] is closed")
    if session.busy:
        raise RuntimeError(f"the session of pairs[{i}] is in a running call")
    return 0


cdef list unpack_pairs(pool, pairs, list sessions):
    """Append the sessions of the pairs to `sessions`, checked; return the chunks."""
    cdef list chunks = []
    cdef BaseSession session
    cdef Py_ssize_t i = 0
    for pair in pairs:
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise TypeError(f"pairs[{i}] is {type(pair).__name__}, wanted a pair of a session and a chunk")
        if not isinstance(pair[0], BaseSession):
            raise TypeError(f"pairs[{i}] begins with {type(pair[0]).__name__}, wanted a session")
        session = <BaseSession>pair[0]
        if session.pool is not pool:
            raise ValueError(f"the session of pairs[{i}] is of another pool")
        check_usable(session, i)
        sessions.append(session)
        chunks.append(pair[1])
        i += 1
    return chunks


cdef int claim_sessions(list sessions) except -1:
    """Mark the sessions as busy, all of them or none: what converted the chunks may have closed or claimed some."""
    cdef BaseSession session, other
    cdef Py_ssize_t i, j
    for i in range(len(sessions)):
        session = <BaseSession>sessions[i]
        if session.busy or session.slot < 0:
            for j in range(i):
                other = <BaseSession>sessions[j]
                other.busy = False
            for j in range(i):
                if sessions[j] is session:
                    raise ValueError(f"pairs[{i}] has the session of pairs[{j}], wanted each session once")
            check_usable(session, i)
        session.busy = True
    return 0


def run_sessions(BaseStream stream not None, pool, lock, pairs, casting):
    """StreamPool.run, for a model without mask_zero. lock: held during the run."""
    cdef list sessions = [], chunks, arrays, results
    cdef BaseSession session
    chunks = unpack_pairs(pool, pairs, sessions)
    arrays = session_chunks(stream, chunks, casting)
    claim_sessions(sessions)
    try:
        with lock:
            results = run_slots(stream, sessions, arrays)
    finally:
        for session in sessions:
            session.busy = False
    return results


cdef list run_slots(BaseStream stream, list sessions, list xs):
    """One ragged batch of arrays (T_i, I), in the slots of these sessions; returns arrays (S_i, P)."""
    cdef int64_t count = len(sessions), row, longest = 0, total = 0, steps, at
    cdef cnp.npy_intp shape[2]
    cdef bint equal = True, ordered = True
    cdef cnp.ndarray numbers  # (4, count): slots, lengths, run order, lengths in run order
    cdef cnp.ndarray batch_sizes = None
    cdef int64_t *slots
    cdef int64_t *lengths
    cdef int64_t *order
    cdef int64_t *in_order
    cdef int64_t *sizes
    cdef RowPointers x_rows, y_rows
    cdef list ys = []
    if count == 0:
        return ys
    numbers = np.empty((4, count), np.int64)
    slots = <int64_t *>cnp.PyArray_DATA(numbers)
    lengths, order, in_order = slots + count, slots + 2 * count, slots + 3 * count
    shape[1] = stream.output_size
    for row in range(count):
        steps = cnp.PyArray_DIM(<cnp.ndarray>xs[row], 0)
        slots[row], lengths[row], order[row] = (<BaseSession>sessions[row]).slot, steps, row
        equal = equal and steps == lengths[0]
        ordered = ordered and (row == 0 or steps <= lengths[row - 1])
        longest = max(longest, steps)
        total += steps
        shape[0] = steps // stream.stride
        ys.append(cnp.PyArray_SimpleNew(2, shape, stream.type_number))
    if not ordered:
        numbers[2] = np.argsort(-numbers[1], kind="stable")
    if not equal:
        numbers[3] = numbers[1][numbers[2]]
        batch_sizes = np.zeros(longest, np.int64)
        sizes = <int64_t *>cnp.PyArray_DATA(batch_sizes)
        at = count
        for steps in range(longest):
            while at > 0 and in_order[at - 1] <= steps:
                at -= 1
            sizes[steps] = at
    x_rows, y_rows = RowPointers(xs), RowPointers(ys)
    stream.run_rows(count, longest, total, slots, NULL if equal else in_order,
                    <const int64_t *>address(batch_sizes), NULL if ordered else order, x_rows.rows, y_rows.rows)
    return ys
