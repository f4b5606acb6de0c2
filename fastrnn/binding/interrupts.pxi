# Running signal handlers, such as that of Ctrl-C, between the steps of a long call.

cdef extern from "Python.h":
    int PyErr_CheckSignals() noexcept
    unsigned long PyThread_get_thread_ident() noexcept nogil

cdef extern from "core/os/os.h":
    double fr_seconds() noexcept nogil

# If a check waited t seconds for the GIL, the next one is GIL_SHARE * t later, but at most GIL_SECONDS.
DEF GIL_SHARE = 20
DEF GIL_SECONDS = 1.0

cdef unsigned long main_thread
cdef double asks_next = 0  # fr_seconds() of the next check; used by the main thread only


def _note_main_thread():
    global main_thread
    main_thread = threading.main_thread().ident


_note_main_thread()
os.register_at_fork(after_in_child=_note_main_thread)


cdef int check_signals(void *context) noexcept nogil:
    """Run pending signal handlers; return whether one raised an exception.

    Python runs handlers on the main thread only. There is no public way to find out without the GIL whether a signal
    is pending, and while another thread runs Python code, waiting for the GIL takes 5 ms or more. So the wait is
    measured, and the next check is delayed in proportion.
    """
    global asks_next
    if PyThread_get_thread_ident() != main_thread:
        return 0
    cdef double came, asked = fr_seconds()
    if asked < asks_next:
        return 0
    with gil:
        came = fr_seconds()
        asks_next = came + min(GIL_SHARE * (came - asked), GIL_SECONDS)
        return PyErr_CheckSignals()  # the exception stays set until raise_status raises it
