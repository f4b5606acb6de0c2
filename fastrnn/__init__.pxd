# ``cimport fastrnn`` and ``from fastrnn cimport fastrnn_model_load``: the C interface, which include/fastrnn.h documents.
# A module that does so is compiled with fastrnn.get_include() and linked with fastrnn.get_library().
from fastrnn.c_api cimport *
