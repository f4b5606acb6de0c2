# Which instruction sets run here; and direct calls of the kernels of one, for tests and for measuring the machine.

cdef extern from "core/probe.h" nogil:
    ctypedef enum fr_weight_type:
        FR_WEIGHT_FLOAT32
        FR_WEIGHT_FLOAT16
        FR_WEIGHT_INT8
    ctypedef struct fr_kernels:
        const char *isa
    const fr_kernels *fr_kernels_at(size_t, fr_weight_type)
    const fr_kernels *fr_kernels_named(const char *, fr_weight_type)
    fastrnn_status fr_activate(const char *, fastrnn_activation, int64_t, const float *, float *)
    fastrnn_status fr_probe_fma(const char *, int64_t, int64_t *, double *)
    fastrnn_status fr_probe_read(const char *, int64_t, int64_t, const float *, double *)
    ctypedef enum fr_gate:
        FR_GATE_SIGMOID
        FR_GATE_TANH
        FR_GATE_SIGMOID_TANH
    fastrnn_status fr_probe_gate(const char *, fr_gate, int64_t, int64_t, const float *, double *)


PROBE_GATES = {"sigmoid": FR_GATE_SIGMOID, "tanh": FR_GATE_TANH, "sigmoid*tanh": FR_GATE_SIGMOID_TANH}


WEIGHT_TYPES = {"float32": FR_WEIGHT_FLOAT32, "float16": FR_WEIGHT_FLOAT16, "int8": FR_WEIGHT_INT8}


def available_isas(weight_dtype="float32"):
    """Names of the instruction sets that can run here and have kernels for weights of a type, best first."""
    cdef fr_weight_type weights = WEIGHT_TYPES[weight_dtype]
    names, i = [], 0
    while fr_kernels_at(i, weights) != NULL:
        names.append(fr_kernels_at(i, weights).isa.decode())
        i += 1
    return names


def isa_for(isa, weight_dtype):
    """The instruction set that a layer takes for weights of this type, where `isa`, which runs here, is asked for."""
    cdef bytes isa_name = isa.encode()
    cdef fr_weight_type weights = WEIGHT_TYPES[weight_dtype]
    return fr_kernels_named(isa_name, weights).isa.decode()


def activate(isa, name, x, alpha=0.0, beta=0.0):
    """An activation of a 1-D float32 array by the kernels of one instruction set; for tests."""
    cdef const float[::1] values = np.ascontiguousarray(x, np.float32)
    cdef cnp.ndarray y = np.empty(values.shape[0], np.float32)
    cdef float[::1] out = y
    cdef fastrnn_activation activation = fastrnn_activation(ACTIVATIONS[name], alpha, beta)
    cdef bytes isa_name = isa.encode()
    if values.shape[0]:
        raise_status(fr_activate(isa_name, activation, values.shape[0], &values[0], &out[0]))
    return y


def probe_fma(isa, rounds):
    """Run `rounds` rounds of multiply-adds in registers; return their number and the sum of the lanes."""
    cdef bytes isa_name = isa.encode()
    cdef int64_t number = rounds, multiply_adds
    cdef double total
    cdef fastrnn_status status
    cdef const char *name = isa_name
    with nogil:
        status = fr_probe_fma(name, number, &multiply_adds, &total)
    raise_status(status)
    return multiply_adds, total


def probe_read(isa, values, times):
    """Read a 1-D float32 array `times` times; return the sum. Its data is aligned to 64 bytes, its length a multiple of 256."""
    cdef const float[::1] view = values
    cdef bytes isa_name = isa.encode()
    cdef const char *name = isa_name
    cdef int64_t number = times
    cdef double total
    cdef fastrnn_status status
    with nogil:
        status = fr_probe_read(name, number, view.shape[0], &view[0], &total)
    raise_status(status)
    return total


def probe_gate(isa, gate, values, times):
    """Compute a gate's function, a key of PROBE_GATES, of each value `times` times; return the sum. values: as in probe_read."""
    cdef const float[::1] view = values
    cdef bytes isa_name = isa.encode()
    cdef const char *name = isa_name
    cdef fr_gate which = PROBE_GATES[gate]
    cdef int64_t number = times
    cdef double total
    cdef fastrnn_status status
    with nogil:
        status = fr_probe_gate(name, which, number, view.shape[0], &view[0], &total)
    raise_status(status)
    return total
