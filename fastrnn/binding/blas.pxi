# The functions of SciPy's BLAS that the core calls.

cdef fastrnn_blas blas
cdef bint blas_is_loaded = False


def load_blas():
    """Take sgemm and dgemm from SciPy, once.

    Raises
    ------
    ImportError
        SciPy's BLAS is missing, or this module cannot call it.
    """
    global blas_is_loaded
    if blas_is_loaded:
        return
    if sys.byteorder != "little":
        raise ImportError("the BLAS backend passes 64-bit integers to a BLAS of either width, which needs a "
                          f"little-endian machine; this one is {sys.byteorder}-endian")
    from scipy.linalg import cython_blas
    for name in ("sgemm", "dgemm"):
        capsule = cython_blas.__pyx_capi__.get(name)
        if capsule is None:
            raise ImportError(f"scipy.linalg.cython_blas has no {name}")
        signature = PyCapsule_GetName(capsule)
        arguments = signature.decode().count(",") + 1
        if arguments != 13:
            raise ImportError(f"scipy.linalg.cython_blas.{name} has {arguments} arguments, wanted 13: {signature.decode()}")
        if name == "sgemm":
            blas.sgemm = PyCapsule_GetPointer(capsule, signature)
        else:
            blas.dgemm = PyCapsule_GetPointer(capsule, signature)
    blas.struct_size = sizeof(fastrnn_blas)
    blas_is_loaded = True
