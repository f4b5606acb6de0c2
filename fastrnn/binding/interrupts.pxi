# Signal handlers, such as Ctrl-C's, that run between the steps of a long call.

cdef extern from "Python.h":
    int PyErr_CheckSignals() noexcept
    unsigned long PyThread_get_thread_ident() noexcept nogil

cdef extern from "core/os/os.h":
    double fr_seconds() noexcept nogil

DEF GIL_SHARE = 20  # the GIL is asked for again after this many times as long as it last took to come,
DEF GIL_SECONDS = 1.0  # or after this

cdef unsigned long main_thread
cdef double asks_next = 0  # the main thread's; seconds


def _note_main_thread():
    global main_thread
    main_thread = threading.main_thread().ident


_note_main_thread()
os.register_at_fork(after_in_child=_note_main_thread)


cdef int check_signals(void *context) noexcept nogil:
    """Signal handlers run on the main thread only. There is no public way to know without the GIL that a signal came,
    and beside a busy thread the GIL takes 5 ms and more to come: the wait is measured, and the next one put off."""
    global asks_next
    if PyThread_get_thread_ident() != main_thread:
        return 0
    cdef double came, asked = fr_seconds()
    if asked < asks_next:
        return 0
    with gil:
        came = fr_seconds()
        asks_next = came + min(GIL_SHARE * (came - asked), GIL_SECONDS)
        return PyErr_CheckSignals()  # a raised exception stays set until raise_status hands it on
