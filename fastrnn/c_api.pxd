"""The declarations of fastrnn.h for Cython: ``from fastrnn.c_api cimport fastrnn_layer_create``.

``include/fastrnn.h`` documents them. A module that cimports them is compiled with that header and linked with the
engine's C sources.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t

cdef extern from "fastrnn.h" nogil:
    ctypedef enum fastrnn_status:
        FASTRNN_OK
        FASTRNN_ERROR_ARGUMENT
        FASTRNN_ERROR_MEMORY
        FASTRNN_ERROR_SIZE
        FASTRNN_ERROR_SNAPSHOT
        FASTRNN_ERROR_INTERRUPTED
        FASTRNN_ERROR_FORKED
    ctypedef enum fastrnn_kind:
        FASTRNN_LSTM
        FASTRNN_GRU
        FASTRNN_RNN
    ctypedef enum fastrnn_dtype:
        FASTRNN_FLOAT32
        FASTRNN_FLOAT64
    ctypedef enum fastrnn_activation_name:
        FASTRNN_SIGMOID
        FASTRNN_TANH
        FASTRNN_RELU
        FASTRNN_LINEAR
        FASTRNN_HARD_SIGMOID
        FASTRNN_LEAKY_RELU
        FASTRNN_ELU
        FASTRNN_SOFTSIGN
        FASTRNN_SOFTPLUS
        FASTRNN_AFFINE
        FASTRNN_SCALED_TANH
        FASTRNN_THRESHOLDED_RELU
    ctypedef struct fastrnn_activation:
        fastrnn_activation_name name
        double alpha
        double beta
    ctypedef struct fastrnn_config:
        fastrnn_kind kind
        fastrnn_dtype dtype
        int64_t input_size, hidden_size, proj_size, num_layers
        int bidirectional, reverse
    ctypedef struct fastrnn_cell:
        const void *weight_ih
        const void *weight_hh
        const void *bias_ih
        const void *bias_hh
        const void *weight_hr
        const void *peephole
        fastrnn_activation activations[5]
        double cell_clip, gate_clip, proj_clip
        int coupled, linear_before_reset
    ctypedef struct fastrnn_cell_arrays:
        void *weight_ih
        void *weight_hh
        void *bias_ih
        void *bias_hh
        void *weight_hr
        void *peephole
    ctypedef struct fastrnn_snapshot_info:
        uint32_t version, real_size
        uint64_t fingerprint
        int64_t num_rows
    ctypedef struct fastrnn_blas:
        void *sgemm
        void *dgemm
    ctypedef struct fastrnn_layer
    ctypedef struct fastrnn_unrolled
    ctypedef struct fastrnn_pool
    ctypedef struct fastrnn_view:
        void *base
        void **rows
        const int64_t *step_offsets
        int64_t row_stride, step_stride
    ctypedef enum fastrnn_past_end:
        FASTRNN_PAST_END_NOTHING
        FASTRNN_PAST_END_ZERO
        FASTRNN_PAST_END_CARRY
    ctypedef struct fastrnn_batch:
        int64_t num_rows, num_steps
        const int64_t *lengths
        const int64_t *batch_sizes
        fastrnn_view x
        fastrnn_view y
        fastrnn_past_end past_end
        int64_t padded_steps
        int (*interrupted)(void *) noexcept nogil
        void *interrupted_context
        fastrnn_pool *pool
        const int64_t *slots
    ctypedef struct fastrnn_boundary:
        const void *h0
        const void *c0
        void *hn
        void *cn
        const int64_t *indices
    const char *fastrnn_status_message(fastrnn_status)
    const char *fastrnn_version()
    const char *fastrnn_isa(size_t)
    fastrnn_status fastrnn_layer_create(const fastrnn_config *, const fastrnn_cell *, const char *, const fastrnn_blas *,
                                        fastrnn_layer **)
    void fastrnn_layer_destroy(fastrnn_layer *)
    const char *fastrnn_layer_isa(const fastrnn_layer *)
    size_t fastrnn_layer_nbytes(const fastrnn_layer *)
    uint64_t fastrnn_layer_fingerprint(const fastrnn_layer *)
    fastrnn_status fastrnn_layer_unpack(const fastrnn_layer *, int64_t, const fastrnn_cell_arrays *, fastrnn_cell *)
    fastrnn_status fastrnn_pool_create(int, fastrnn_pool **)
    void fastrnn_pool_destroy(fastrnn_pool *)
    void fastrnn_pool_set_threshold(fastrnn_pool *, double)
    fastrnn_status fastrnn_workspace_size(const fastrnn_layer *, const fastrnn_batch *, size_t *)
    fastrnn_status fastrnn_run(const fastrnn_layer *, const fastrnn_batch *, const fastrnn_boundary *, void *)
    fastrnn_status fastrnn_stream_size(const fastrnn_layer *, int64_t, size_t *)
    fastrnn_status fastrnn_stream_set(const fastrnn_layer *, int64_t, void *, const fastrnn_boundary *)
    fastrnn_status fastrnn_stream_set_slots(const fastrnn_layer *, int64_t, const int64_t *, void *, const fastrnn_boundary *)
    fastrnn_status fastrnn_stream_snapshot_size(const fastrnn_layer *, int64_t, size_t *)
    fastrnn_status fastrnn_stream_snapshot(const fastrnn_layer *, int64_t, const void *, void *)
    fastrnn_status fastrnn_stream_restore(const fastrnn_layer *, int64_t, void *, const void *, size_t)
    fastrnn_status fastrnn_snapshot_describe(const void *, size_t, fastrnn_snapshot_info *)
    fastrnn_status fastrnn_stream_get(const fastrnn_layer *, int64_t, const void *, const fastrnn_boundary *)
    fastrnn_status fastrnn_stream_run(const fastrnn_layer *, const fastrnn_batch *, void *, void *)
    fastrnn_status fastrnn_unrolled_create(const fastrnn_layer *, int64_t, fastrnn_unrolled **)
    void fastrnn_unrolled_destroy(fastrnn_unrolled *)
    fastrnn_status fastrnn_unrolled_run(const fastrnn_unrolled *, const fastrnn_batch *, const fastrnn_boundary *, void *)
    fastrnn_status fastrnn_activate(const char *, fastrnn_activation, int64_t, const float *, float *)
    fastrnn_status fastrnn_probe_fma(const char *, int64_t, int64_t *, double *)
    fastrnn_status fastrnn_probe_read(const char *, int64_t, int64_t, const float *, double *)
