/* Prepared steps of streams. A step of standard cells on the caller's thread, with its states in place in the store, calls the
 * kernels directly; any other one runs its plan. */
#include <string.h>

#include "cpu.h"
#include "error.h"
#include "plan.h"
#include "store.h"
#include "structs.h"

typedef void fr_step_kernel(const fr_step_args *);

struct fastrnn_step {
    fr_step_kernel *kernel;  /* NULL: run the plan */
    unsigned char *parities; /* of the rows' slots */
    fr_step_args *args[2];   /* (num_layers) for each parity; all but the first layer's x is constant */
    const char *h_out[2];    /* of the last layer */
    int64_t num_rows, num_layers;
    bool is_single; /* one row, one layer */
    bool sets_mode; /* of floating-point arithmetic */
    int64_t out_bytes, h_stride, y_stride; /* bytes: an output vector, and from one to the next in h_out and in y */
    void *workspace;   /* of the plan */
    fastrnn_plan plan; /* of `batch` */
    fastrnn_batch batch;
};

static fr_step_kernel *kernel_of(const fr_cell *cell, const fr_kernels *kernels)
{
    switch (cell->kind) {
    case FASTRNN_LSTM: return kernels->lstm_step;
    case FASTRNN_GRU: return kernels->gru_step;
    case FASTRNN_RNN: return kernels->rnn_step;
    }
    return NULL;
}

static int64_t first_slot(const fastrnn_batch *batch) { return batch->slots ? batch->slots[0] : 0; }

static bool slots_are_consecutive(const fastrnn_batch *batch)
{
    for (int64_t row = 1; batch->slots && row < batch->num_rows; row++)
        if (batch->slots[row] != first_slot(batch) + row)
            return false;
    return true;
}

/* The kernel that computes every layer of the step, or NULL if the step must run its plan. */
static fr_step_kernel *direct_kernel(const fr_plan *plan)
{
    const fastrnn_layer *layer = plan->layer;
    const fastrnn_batch *batch = plan->batch;
    if (plan->shared.workers > 1 || plan->alone.num_slices > 1 || plan->row_indices ||
        batch->lengths || batch->x.rows || batch->y.rows || batch->past_end != FASTRNN_PAST_END_NOTHING || batch->interrupted ||
        batch->num_rows == 0 || layer->input_size == 0 || !slots_are_consecutive(batch))
        return NULL;
    for (int64_t i = 0; i < layer->num_layers; i++)
        if (!fr_cell_takes_addresses(&layer->cells[i]))
            return NULL;
    return kernel_of(layer->cells, layer->backend.kernels);
}

/* The addresses of the rows' vectors in a buffer of slots. */
static void **addresses_of(const fastrnn_batch *batch, void *buffer, int64_t stride, size_t element_size, fr_arena *arena)
{
    void **addresses = fr_take(arena, (size_t)batch->num_rows, sizeof *addresses);
    for (int64_t row = 0; row < batch->num_rows; row++)
        addresses[row] = fr_at(buffer, (first_slot(batch) + row) * stride, element_size);
    return addresses;
}

/* The kernel's arguments for all layers, for slots of each parity. */
static void fill_args(const fr_plan *plan, void *scratch, fr_arena *arena, fr_step_args *const args[2])
{
    const fastrnn_layer *layer = plan->layer;
    const fastrnn_batch *batch = plan->batch;
    const size_t e = layer->backend.kernels->real_size;
    const fr_states states = fr_store_states(batch->store);
    for (int64_t i = 0; i < layer->num_layers; i++) {
        const fr_cell *cell = &layer->cells[i];
        fr_slots slots;
        fr_states_slots(&states, layer, i, &slots);
        void **h[2], **c[2] = {NULL, NULL};
        for (int parity = 0; parity < 2; parity++) {
            h[parity] = addresses_of(batch, slots.h[parity], cell->h_stride, e, arena);
            if (cell->kind == FASTRNN_LSTM)
                c[parity] = addresses_of(batch, slots.c[parity], cell->c_stride, e, arena);
        }
        for (int parity = 0; parity < 2; parity++)
            args[parity][i] = (fr_step_args){
                .rows = batch->num_rows, .blocks = cell->input.blocks, .backwards = parity == 1, .input_size = cell->input_size,
                .x = i ? args[parity][i - 1].h_out[0] : NULL, .x_stride = i ? cell[-1].h_stride : batch->x.row_stride,
                .weight_ih = cell->input.weights, .weight_hh = cell->recurrent.weights, .bias = cell->bias,
                .h_in = h[parity], .c_in = c[parity], .h_out = h[!parity], .c_out = c[!parity], .h_size = cell->h_size,
                .activation = cell->options.activations[0].name, .scratch = scratch,
            };
    }
}

/* The number of elements of the kernel's scratch memory. */
static size_t scratch_of(const fr_plan *plan)
{
    const fr_widths *most = &plan->layer->widest;
    return (size_t)(most->scratch + plan->batch->num_rows * most->scratch_row);
}

static const fr_plan *plan_in(const fastrnn_plan *plan) { return (const void *)plan->opaque; }

static fastrnn_status make_plan(const fastrnn_layer *layer, const fastrnn_batch *given, fastrnn_batch *batch, fastrnn_plan *plan)
{
    if (!layer)
        return fr_fail_null("layer");
    if (!given || !fr_struct_read(batch, sizeof *batch, sizeof *batch, given))
        return fr_fail_struct("batch");
    if (!batch->store)
        return fr_fail_null("store");
    if (batch->num_steps != 1)
        return fr_fail(FASTRNN_ERROR_ARGUMENT, "num_steps is %lld, wanted 1", (long long)batch->num_steps);
    batch->struct_size = sizeof *batch;
    plan->struct_size = sizeof *plan;
    return fastrnn_plan_make(layer, batch, plan);
}

#define ADDRESSES 4 /* of each row in each layer: h and c, of both parities */

/* The bytes of a step in memory of any alignment; a plan's workspace_size is far below SIZE_MAX. */
static size_t size_of_step(const fastrnn_plan *plan)
{
    const fr_plan *made = plan_in(plan);
    size_t size = FR_ALIGNMENT;
    fr_add_bytes(&size, 1, sizeof(fastrnn_step));
    if (!direct_kernel(made))
        return size + plan->workspace_size;
    fr_add_bytes(&size, scratch_of(made), made->layer->backend.kernels->real_size);
    for (int parity = 0; parity < 2; parity++)
        fr_add_bytes(&size, (size_t)made->layer->num_layers, sizeof(fr_step_args));
    for (int64_t i = 0; i < ADDRESSES * made->layer->num_layers; i++)
        fr_add_bytes(&size, (size_t)made->batch->num_rows, sizeof(void *));
    return made->batch->num_rows > 1 ? size + plan->workspace_size : size;
}

fastrnn_status fastrnn_step_size(const fastrnn_layer *layer, const fastrnn_batch *given, size_t *size)
{
    fastrnn_batch batch;
    fastrnn_plan plan;
    const fastrnn_status status = size ? make_plan(layer, given, &batch, &plan) : fr_fail_null("size");
    if (status == FASTRNN_OK)
        *size = size_of_step(&plan);
    return status;
}

fastrnn_status fastrnn_step_prepare(const fastrnn_layer *layer, const fastrnn_batch *given, unsigned flags, void *memory,
                                    size_t size, fastrnn_step **prepared)
{
    if (!memory || !prepared)
        return fr_fail_null(memory ? "step" : "memory");
    if (flags & ~(unsigned)FASTRNN_STEP_CALLER_MODE)
        return fr_fail(FASTRNN_ERROR_ARGUMENT, "flags is %lld, wanted 0 or FASTRNN_STEP_CALLER_MODE", (long long)flags);
    fastrnn_step made = {0};
    const fastrnn_status status = make_plan(layer, given, &made.batch, &made.plan);
    if (status != FASTRNN_OK)
        return status;
    if (size < size_of_step(&made.plan)) /* also if the thread pool's threshold has changed since fastrnn_step_size */
        return fr_fail(FASTRNN_ERROR_ARGUMENT, "size is %zu, wanted at least %zu", size, size_of_step(&made.plan));
    fr_arena arena = fr_arena_of(memory);
    fastrnn_step *step = fr_take(&arena, 1, sizeof *step);
    *step = made;
    fr_plan *plan = (void *)step->plan.opaque;
    plan->batch = &step->batch;
    const fr_cell *last = &layer->cells[layer->num_layers - 1];
    const int64_t e = (int64_t)layer->backend.kernels->real_size;
    step->kernel = direct_kernel(plan);
    step->sets_mode = !(flags & FASTRNN_STEP_CALLER_MODE);
    step->num_rows = step->batch.num_rows;
    step->num_layers = layer->num_layers;
    step->is_single = step->num_rows == 1 && step->num_layers == 1;
    step->out_bytes = last->h_size * e;
    step->h_stride = last->h_stride * e;
    step->y_stride = step->batch.y.row_stride * e;
    if (step->kernel) {
        void *scratch = fr_take(&arena, scratch_of(plan), layer->backend.kernels->real_size);
        step->parities = fr_store_states(step->batch.store).parities + first_slot(&step->batch);
        for (int parity = 0; parity < 2; parity++)
            step->args[parity] = fr_take(&arena, (size_t)layer->num_layers, sizeof(fr_step_args));
        fill_args(plan, scratch, &arena, step->args);
        for (int parity = 0; parity < 2; parity++)
            step->h_out[parity] = step->args[parity][layer->num_layers - 1].h_out[0];
    }
    step->workspace = arena.next;
    *prepared = step;
    return FASTRNN_OK;
}

static fastrnn_status run_plan(fastrnn_step *step, const void *x, void *y)
{
    step->batch.x.base = (void *)(uintptr_t)x;
    step->batch.y.base = y;
    return fastrnn_plan_run(&step->plan, step->workspace);
}

/* Floats. The vectors are short: memcpy would take longer. */
static inline void copy_vector(char *to, const char *from, int64_t bytes)
{
    for (; bytes >= 16; to += 16, from += 16, bytes -= 16)
        memcpy(to, from, 16);
    if (bytes & 8) {
        memcpy(to, from, 8);
        to += 8, from += 8;
    }
    if (bytes & 4)
        memcpy(to, from, 4);
}

static inline void run_layers(fr_step_kernel *kernel, const fr_step_args *args, int64_t num_layers)
{
    for (int64_t i = 0; i < num_layers; i++)
        kernel(&args[i]);
}

/* num_rows and num_layers are the step's: 1 as constants save instructions, of which the fixed cost of a small step consists. */
static inline __attribute__((always_inline)) fastrnn_status run_kernels(const fastrnn_step *step, const void *x, char *y,
                                                                        int64_t num_rows, int64_t num_layers)
{
    unsigned char *parities = step->parities;
    const int parity = parities[0];
    fr_step_args *args = step->args[parity];
    args->x = x;
    if (step->sets_mode) {
        const unsigned long long mode = fr_fp_flush();
        run_layers(step->kernel, args, num_layers);
        if ((mode & FR_FP_FLUSH) != FR_FP_FLUSH)
            fr_fp_restore(mode);
    } else {
        run_layers(step->kernel, args, num_layers);
    }
    const char *h = step->h_out[parity];
    for (int64_t row = 0; row < num_rows; row++) {
        parities[row] = (unsigned char)(parity ^ 1);
        copy_vector(y + row * step->y_stride, h + row * step->h_stride, step->out_bytes);
    }
    return FASTRNN_OK;
}

fastrnn_status fastrnn_step_run(fastrnn_step *step, const void *x, void *y)
{
    if (!step)
        return FASTRNN_ERROR_ARGUMENT;
    if (!step->kernel || !x || !y)
        return run_plan(step, x, y);
    if (step->is_single)
        return run_kernels(step, x, y, 1, 1);
    for (int64_t row = 1; row < step->num_rows; row++)
        if (step->parities[row] != step->parities[0]) /* the rows of h, which the next layer reads, are in both buffers */
            return run_plan(step, x, y);
    return run_kernels(step, x, y, step->num_rows, step->num_layers);
}

uint64_t fastrnn_fp_flush(void) { return fr_fp_flush(); }
void fastrnn_fp_restore(uint64_t mode) { fr_fp_restore(mode); }
