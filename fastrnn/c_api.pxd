"""The declarations of fastrnn.h for Cython: ``cimport fastrnn``, or ``from fastrnn.c_api cimport fastrnn_layer_create``.

``include/fastrnn.h`` documents them. A module that cimports them is compiled with ``fastrnn.get_include()`` and linked with
``fastrnn.get_library()``; docs/embedding.md has an example.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t

cdef extern from "fastrnn.h" nogil:
    ctypedef enum fastrnn_status:
        FASTRNN_OK
        FASTRNN_ERROR_ARGUMENT
        FASTRNN_ERROR_MEMORY
        FASTRNN_ERROR_SIZE
        FASTRNN_ERROR_ISA
        FASTRNN_ERROR_BLAS
        FASTRNN_ERROR_SNAPSHOT
        FASTRNN_ERROR_INTERRUPTED
        FASTRNN_ERROR_FORKED
        FASTRNN_ERROR_STORE
        FASTRNN_ERROR_ID
        FASTRNN_ERROR_FILE
    ctypedef enum fastrnn_kind:
        FASTRNN_LSTM
        FASTRNN_GRU
        FASTRNN_RNN
    ctypedef enum fastrnn_dtype:
        FASTRNN_FLOAT32
        FASTRNN_FLOAT64
    ctypedef enum fastrnn_weight_dtype:
        FASTRNN_WEIGHTS_FLOAT32
        FASTRNN_WEIGHTS_FLOAT16
        FASTRNN_WEIGHTS_INT8
    ctypedef enum fastrnn_activation_name:
        pass
    ctypedef struct fastrnn_activation:
        fastrnn_activation_name name
        double alpha
        double beta
    ctypedef struct fastrnn_config:
        size_t struct_size
        fastrnn_kind kind
        fastrnn_dtype dtype
        int64_t input_size, hidden_size, proj_size, num_layers
        int bidirectional, reverse
        fastrnn_weight_dtype weight_dtype
    ctypedef struct fastrnn_cell_options:
        fastrnn_activation activations[5]
        double cell_clip, gate_clip, proj_clip
        int coupled, reset_before
    ctypedef struct fastrnn_cell:
        size_t struct_size
        const void *weight_ih
        const void *weight_hh
        const void *bias_ih
        const void *bias_hh
        const void *weight_hr
        const void *peephole
        fastrnn_cell_options options
    ctypedef struct fastrnn_cell_arrays:
        size_t struct_size
        void *weight_ih
        void *weight_hh
        void *bias_ih
        void *bias_hh
        void *weight_hr
        void *peephole
    ctypedef struct fastrnn_snapshot_info:
        size_t struct_size
        uint32_t version, real_size
        uint64_t fingerprint
        int64_t num_rows, extra_size
    ctypedef struct fastrnn_blas:
        size_t struct_size
        void *sgemm
        void *dgemm
    ctypedef struct fastrnn_layer
    ctypedef struct fastrnn_unrolled
    ctypedef struct fastrnn_pool
    ctypedef struct fastrnn_step
    ctypedef struct fastrnn_view:
        void *base
        void **rows
        int64_t row_stride, step_stride
    ctypedef enum fastrnn_past_end:
        FASTRNN_PAST_END_NOTHING
        FASTRNN_PAST_END_ZERO
        FASTRNN_PAST_END_CARRY
    ctypedef struct fastrnn_batch:
        size_t struct_size
        int64_t num_rows, num_steps
        const int64_t *lengths
        const int64_t *batch_sizes
        const int64_t *row_indices
        fastrnn_view x
        fastrnn_view y
        int packed
        fastrnn_past_end past_end
        int64_t padded_steps
        const void *h0
        const void *c0
        void *hn
        void *cn
        void *store
        const int64_t *slots
        const fastrnn_unrolled *unrolled
        int (*interrupted)(void *) noexcept nogil
        void *interrupted_context
        fastrnn_pool *pool
    ctypedef struct fastrnn_plan:
        size_t struct_size, workspace_size
    const char *fastrnn_status_message(fastrnn_status)
    const char *fastrnn_last_error()
    const char *fastrnn_version()
    int fastrnn_abi_version()
    ctypedef struct fastrnn_allocator:
        size_t struct_size
        void *(*allocate)(void *, size_t) noexcept nogil
        void (*release)(void *, void *) noexcept nogil
        void *context
    fastrnn_status fastrnn_set_allocator(const fastrnn_allocator *)
    const char *fastrnn_isa(size_t)
    const char *fastrnn_activation_info(size_t, fastrnn_activation *, int *)
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
    fastrnn_status fastrnn_plan_make(const fastrnn_layer *, const fastrnn_batch *, fastrnn_plan *)
    fastrnn_status fastrnn_plan_run(const fastrnn_plan *, void *)
    enum:
        FASTRNN_STEP_CALLER_MODE
    fastrnn_status fastrnn_step_size(const fastrnn_layer *, const fastrnn_batch *, size_t *)
    fastrnn_status fastrnn_step_prepare(const fastrnn_layer *, const fastrnn_batch *, unsigned, void *, size_t,
                                        fastrnn_step **)
    fastrnn_status fastrnn_step_run(fastrnn_step *, const void *, void *)
    uint64_t fastrnn_fp_flush()
    void fastrnn_fp_restore(uint64_t)
    fastrnn_status fastrnn_store_size(const fastrnn_layer *, int64_t, int64_t, size_t *)
    fastrnn_status fastrnn_store_init(const fastrnn_layer *, int64_t, int64_t, void *)
    fastrnn_status fastrnn_store_set(const fastrnn_layer *, void *, int64_t, const int64_t *, const void *, const void *)
    fastrnn_status fastrnn_store_get(const fastrnn_layer *, const void *, int64_t, const int64_t *, void *, void *)
    void *fastrnn_store_extra(const fastrnn_layer *, void *, int64_t)
    fastrnn_status fastrnn_snapshot_size(const fastrnn_layer *, const void *, int64_t, size_t *)
    fastrnn_status fastrnn_snapshot_save(const fastrnn_layer *, const void *, int64_t, const int64_t *, void *)
    fastrnn_status fastrnn_snapshot_restore(const fastrnn_layer *, void *, int64_t, const int64_t *, const void *, size_t)
    fastrnn_status fastrnn_snapshot_describe(const void *, size_t, fastrnn_snapshot_info *)
    fastrnn_status fastrnn_unrolled_create(const fastrnn_layer *, int64_t, fastrnn_unrolled **)
    void fastrnn_unrolled_destroy(fastrnn_unrolled *)
    ctypedef enum fastrnn_op_kind:
        FASTRNN_OP_LAYER
        FASTRNN_OP_EMBEDDING
        FASTRNN_OP_LINEAR
        FASTRNN_OP_CONV1D
        FASTRNN_OP_LAYER_NORM
        FASTRNN_OP_SCALE
        FASTRNN_OP_ACTIVATION
        FASTRNN_OP_SOFTMAX
        FASTRNN_OP_LOG_SOFTMAX
        FASTRNN_OP_LAST
        FASTRNN_OP_FIRST
        FASTRNN_OP_MEAN
        FASTRNN_OP_MAX
        FASTRNN_OP_FINAL
        FASTRNN_OP_REVERSE
    ctypedef struct fastrnn_op:
        size_t struct_size
        fastrnn_op_kind kind
        int64_t input_size, output_size
        const void *weight
        const void *bias
        int64_t kernel_size, stride, dilation, padding_left, padding_right
        double eps
        fastrnn_activation activation
        const fastrnn_config *config
        const fastrnn_cell *cells
    ctypedef struct fastrnn_model
    ctypedef struct fastrnn_model_plan
    ctypedef struct fastrnn_model_info:
        size_t struct_size
        int64_t num_ids, input_size, output_size
        int pools
        int64_t stride, first_not_streamed, state_size
    fastrnn_status fastrnn_model_create(const fastrnn_op *, int64_t, const char *, fastrnn_model **)
    fastrnn_status fastrnn_model_load(const char *path, const char *isa, fastrnn_model **model)
    fastrnn_status fastrnn_model_load_memory(const void *data, size_t size, const char *isa, fastrnn_model **model)
    void fastrnn_model_destroy(fastrnn_model *)
    const char *fastrnn_model_isa(const fastrnn_model *)
    size_t fastrnn_model_nbytes(const fastrnn_model *)
    uint64_t fastrnn_model_fingerprint(const fastrnn_model *)
    fastrnn_status fastrnn_model_unpack(const fastrnn_model *, int64_t, void *, void *)
    const fastrnn_layer *fastrnn_model_layer(const fastrnn_model *, int64_t)
    fastrnn_status fastrnn_model_describe(const fastrnn_model *, fastrnn_model_info *)
    int64_t fastrnn_model_output_steps(const fastrnn_model *, int64_t)
    fastrnn_status fastrnn_model_plan_size(const fastrnn_model *, const fastrnn_batch *, size_t *)
    fastrnn_status fastrnn_model_plan_make(const fastrnn_model *, const fastrnn_batch *, void *, size_t,
                                           fastrnn_model_plan **)
    fastrnn_status fastrnn_model_plan_run(fastrnn_model_plan *)
    fastrnn_status fastrnn_model_store_size(const fastrnn_model *, int64_t, size_t *)
    fastrnn_status fastrnn_model_store_init(const fastrnn_model *, int64_t, void *)
    fastrnn_status fastrnn_model_store_reset(const fastrnn_model *, void *, int64_t, const int64_t *)
    fastrnn_status fastrnn_model_store_set(const fastrnn_model *, void *, int64_t, int64_t, const int64_t *, const void *,
                                           const void *)
    fastrnn_status fastrnn_model_store_get(const fastrnn_model *, const void *, int64_t, int64_t, const int64_t *, void *,
                                           void *)
    fastrnn_status fastrnn_model_snapshot_size(const fastrnn_model *, const void *, int64_t, size_t *)
    fastrnn_status fastrnn_model_snapshot_save(const fastrnn_model *, const void *, int64_t, const int64_t *, void *)
    fastrnn_status fastrnn_model_snapshot_restore(const fastrnn_model *, void *, int64_t, const int64_t *, const void *,
                                                  size_t)
