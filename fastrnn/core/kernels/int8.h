/* Products of int8 weights with rows of reals, which are quantised for each product, and whole steps.
 *
 * A weight is scale * q, where q is an integer of -127 to 127 and each output element has its own scale. A row of reals x is
 * quantised so:
 *     largest = max(|x[0]|, |x[1]|, ..., 127 * 2^-126)
 *     scale = largest / 127
 *     q[i] = x[i] * (127 / largest), rounded to the nearest integer, ties to even
 * If x has an infinity or a NaN, all q are 0 and scale is NaN. Every instruction set computes the same q and scale, and the sum
 * of the products of integers is exact, so that it does not depend on the order. Then, in this order,
 *     out = bias + (sum * scale of x) * scale of the weights
 * with one v_fma, so that out depends on the instruction set in its last bits only.
 *
 * Instructions multiply four bytes of each lane with four others and add the products to the lane's 32-bit sum. A panel
 * therefore has groups of four columns, [k/4][gate][V][4], and columns past k are zeros. FR_WEIGHT_OFFSET is added to each byte
 * of a panel, where an instruction wants unsigned bytes; the sums then start at -FR_WEIGHT_OFFSET times the sum of the row's q.
 */
#ifndef FR_INT8_H
#define FR_INT8_H

#include "gates.h"
#include "weights.h"

#define FR_INT8_TILE_ROWS 6 /* at most */

/* Rows that have been quantised. */
typedef struct fr_quantized {
    int8_t *values; /* (rows, stride), zeros from k to the next multiple of 4 */
    int64_t stride;
    real *scales;  /* (rows) */
    int32_t *starts; /* (rows), of the sums of products */
} fr_quantized;

static void quantize_row(const real *x, int64_t k, int8_t *q, real *scale, int32_t *start)
{
    _Alignas(FR_ALIGNMENT) real rest[FR_V] = {0};
    const int64_t whole = k - k % FR_V;
    vi most = vi_set1(0), other = most;
    int64_t i = 0;
    for (; i + 2 * FR_V <= whole; i += 2 * FR_V) {
        most = vi_max(most, v_magnitude(v_load_unaligned(x + i)));
        other = vi_max(other, v_magnitude(v_load_unaligned(x + i + FR_V)));
    }
    if (i < whole)
        most = vi_max(most, v_magnitude(v_load_unaligned(x + i)));
    if (whole < k) {
        memcpy(rest, x + whole, (size_t)(k - whole) * sizeof(real));
        other = vi_max(other, v_magnitude(v_load(rest)));
    }
    const int32_t bits = vi_largest(vi_max(most, other));
    if (bits >= 0x7F800000) { /* infinity; those of a NaN are larger */
        memset(q, 0, (size_t)fr_round_up(k, 4));
        *scale = NAN;
        *start = 0;
        return;
    }
    const float least = FR_INT8_MOST * FLT_MIN;
    float largest;
    memcpy(&largest, &bits, sizeof largest);
    largest = largest > least ? largest : least;
    *scale = largest / FR_INT8_MOST;
    const vf factor = v_set1(FR_INT8_MOST / largest);
    const vf top = v_set1(FR_INT8_MOST); /* only arithmetic that rounds upwards exceeds it */
    vi total = vi_set1(0);
    for (i = 0; i < whole; i += FR_V) {
        const vi rounded = v_round(v_min(top, v_mul(v_load_unaligned(x + i), factor)));
        total = vi_add(total, rounded);
        vi_store_int8(q + i, rounded);
    }
    if (whole < k) {
        const vi rounded = v_round(v_min(top, v_mul(v_load(rest), factor)));
        total = vi_add(total, rounded);
        vi_store_int8(q + i, rounded);
        i += FR_V;
    }
    for (; i < fr_round_up(k, 4); i++)
        q[i] = 0;
    *start = (int32_t)(-(uint32_t)FR_WEIGHT_OFFSET * (uint32_t)vi_sum(total));
}

/* Quantises rows into the scratch memory, and returns the rest of it. The rows are at a stride from x, or at addresses. */
static char *quantize(int64_t rows, int64_t k, const real *x, int64_t x_stride, void *const *addresses, char *scratch,
                      fr_quantized *to)
{
    *to = (fr_quantized){.stride = fr_quantized_stride(k), .values = (int8_t *)scratch};
    to->scales = (real *)(void *)(scratch + rows * to->stride);
    to->starts = (int32_t *)(void *)(to->scales + rows);
    for (int64_t row = 0; row < rows; row++)
        quantize_row(addresses ? addresses[row] : x + row * x_stride, k, to->values + row * to->stride, &to->scales[row], &to->starts[row]);
    return scratch + fr_quantized_bytes(rows, k);
}

/* Vectors [row][block] of one gate in memory; strides in elements. */
typedef struct fr_vectors {
    real *first;
    int64_t row, block;
} fr_vectors;

/* out = base + in . weights. Gate j is `gate` elements after gate j - 1, but the last one has places of its own, as a GRU keeps
 * the two parts of its candidate gate apart. */
typedef struct fr_dots {
    const fr_quantized *in;
    int64_t groups; /* of four columns */
    const fr_weights *weights;
    int64_t panel_gates; /* of the panels; a tile computes all of them, or one */
    int64_t gate;
    fr_vectors base, out, last_base, last_out;
    const char *prefetch; /* the part of the next panel that this tile requests, or NULL */
} fr_dots;

FR_INLINE real *vector_of(const fr_vectors *v, int64_t row, int64_t block) { return v->first + row * v->row + block * v->block; }

/* acc[rows][nb][gates] += in . weights of one group of columns. */
FR_INLINE void dot_group(vi *restrict acc, const int rows, const int nb, const int gates, const int8_t *in, int64_t in_stride,
                         const char *panels, int64_t panel_stride)
{
    const bool hold_inputs = rows <= nb * gates;
    const int num_held = hold_inputs ? rows : nb * gates, num_passing = hold_inputs ? nb * gates : rows;
#define FR_INPUT(row) vi_broadcast(in + (row) * in_stride)
#define FR_WEIGHT(n) vi_load(panels + (n) / gates * panel_stride + (n) % gates * FR_V * 4)
    vi held[FR_INT8_TILE_ROWS];
    FR_UNROLL
    for (int n = 0; n < num_held; n++)
        held[n] = hold_inputs ? FR_INPUT(n) : FR_WEIGHT(n);
    FR_UNROLL
    for (int m = 0; m < num_passing; m++) {
        const vi passing = hold_inputs ? FR_WEIGHT(m) : FR_INPUT(m);
        FR_UNROLL
        for (int n = 0; n < num_held; n++) {
            vi *a = &acc[hold_inputs ? n * nb * gates + m : m * nb * gates + n];
            *a = hold_inputs ? vi_dot4(*a, passing, held[n]) : vi_dot4(*a, held[n], passing);
            FR_IN_ORDER(*a);
        }
    }
#undef FR_INPUT
#undef FR_WEIGHT
}

#define PREFETCHING_TILES 2             /* the first tiles of rows share the next panel */
#define PREFETCHED_PANELS (1 << 20)     /* bytes from which on the L2 cache does not hold all panels */
#define FR_PREFETCHES(GROUPS, GATES) (((GROUPS) * (GATES) * FR_V * 4 / PREFETCHING_TILES + FR_ALIGNMENT - 1) / FR_ALIGNMENT)

FR_INLINE void dot_tile(const fr_dots *d, int64_t row0, int64_t block0, const int rows, const int nb, const int gates)
{
    vi acc[FR_INT8_TILE_VECTORS];
    FR_UNROLL
    for (int row = 0; row < rows; row++)
        FR_UNROLL
        for (int n = 0; n < nb * gates; n++)
            acc[row * nb * gates + n] = vi_set1(FR_WEIGHT_OFFSET ? d->in->starts[row0 + row] : 0);
    const int8_t *in = d->in->values + row0 * d->in->stride;
    const char *panels = w_panel(d->weights, block0);
    const int64_t in_stride = d->in->stride, panel_stride = d->weights->panel_stride;
    const int64_t panel_gates = gates == 1 ? d->panel_gates : gates, group_bytes = panel_gates * FR_V * 4;
    int64_t groups = d->groups;
    const int at_once = rows * nb * gates > FR_INT8_TILE_VECTORS / 2 ? 1 : FR_INT8_GROUPS; /* a loop body of many sums is long */
    const char *prefetch = d->prefetch;
    for (; groups >= at_once; groups -= at_once, in += 4 * at_once, panels += at_once * group_bytes) {
        if (rows > 1 && prefetch) {
            FR_UNROLL
            for (int i = 0; i < FR_PREFETCHES(at_once, gates); i++)
                __builtin_prefetch(prefetch + i * FR_ALIGNMENT);
            prefetch += at_once * group_bytes / PREFETCHING_TILES;
        }
        FR_UNROLL
        for (int g = 0; g < at_once; g++)
            dot_group(acc, rows, nb, gates, in + 4 * g, in_stride, panels + g * group_bytes, panel_stride);
    }
    for (; at_once > 1 && groups > 0; groups--, in += 4, panels += group_bytes)
        dot_group(acc, rows, nb, gates, in, in_stride, panels, panel_stride);
    const real *scales = (const real *)d->weights->scales + block0 * panel_gates * FR_V;
    const fr_vectors base = d->base, out = d->out, last_base = d->last_base, last_out = d->last_out;
    const int64_t gate_stride = d->gate;
    FR_UNROLL
    for (int r = 0; r < rows; r++) {
        const int64_t row = row0 + r;
        const vf scale = v_broadcast(d->in->scales + row);
        FR_UNROLL
        for (int n = 0; n < nb * gates; n++) {
            const int64_t block = block0 + n / gates, gate = n % gates * gate_stride;
            const bool last = n % gates == gates - 1;
            const real *from = last ? vector_of(&last_base, row, block) : vector_of(&base, row, block) + gate;
            real *to = last ? vector_of(&last_out, row, block) : vector_of(&out, row, block) + gate;
            const vf sum = v_mul(v_to_real(acc[r * nb * gates + n]), scale);
            v_store(to, v_fma(sum, v_load(scales + (n / gates * panel_gates + n % gates) * FR_V), v_load(from)));
        }
    }
}

typedef void fr_dot_tile(const fr_dots *, int64_t row, int64_t block);

#define FR_DOT_TILE_FITS(R, N, GATES) ((R) <= FR_INT8_TILE_ROWS && (R) * (N) * (GATES) <= FR_INT8_TILE_VECTORS)
#define FR_DOT_TILE(GATES, R, N)                                                                                    \
    static __attribute__((noinline)) void dot_##GATES##_##R##x##N(const fr_dots *d, int64_t row, int64_t block)       \
    {                                                                                                               \
        const bool fits = FR_DOT_TILE_FITS(R, N, GATES);                                                              \
        dot_tile(d, row, block, fits ? (R) : 1, fits ? (N) : 1, GATES);                                              \
    }
#define FR_DOT_TILES(GATES, R) FR_DOT_TILE(GATES, R, 1) FR_DOT_TILE(GATES, R, 2) FR_DOT_TILE(GATES, R, 4) FR_DOT_TILE(GATES, R, 8)
#define FR_DOT_TILE_IF_FITS(GATES, R, N) FR_DOT_TILE_FITS(R, N, GATES) ? dot_##GATES##_##R##x##N : NULL
#define FR_DOT_TILE_ROW(GATES, R)                                                                                   \
    {FR_DOT_TILE_IF_FITS(GATES, R, 1), FR_DOT_TILE_IF_FITS(GATES, R, 2), FR_DOT_TILE_IF_FITS(GATES, R, 4),             \
     FR_DOT_TILE_IF_FITS(GATES, R, 8)}
#define FR_DEFINE_DOT_TILES(GATES)                                                                                  \
    FR_DOT_TILES(GATES, 1) FR_DOT_TILES(GATES, 2) FR_DOT_TILES(GATES, 3)                                              \
    FR_DOT_TILES(GATES, 4) FR_DOT_TILES(GATES, 5) FR_DOT_TILES(GATES, 6)                                              \
    static fr_dot_tile *const dot_##GATES##_tiles[FR_INT8_TILE_ROWS][4] = {                                          \
        FR_DOT_TILE_ROW(GATES, 1), FR_DOT_TILE_ROW(GATES, 2), FR_DOT_TILE_ROW(GATES, 3),                              \
        FR_DOT_TILE_ROW(GATES, 4), FR_DOT_TILE_ROW(GATES, 5), FR_DOT_TILE_ROW(GATES, 6)};

FR_DEFINE_DOT_TILES(1)
FR_DEFINE_DOT_TILES(3)
FR_DEFINE_DOT_TILES(4)

/* By gates. Panels of two gates, which only a GRU with options has, are multiplied gate by gate. */
static fr_dot_tile *const (*const dot_tiles[])[4] = {NULL, dot_1_tiles, NULL, dot_3_tiles, dot_4_tiles};

/* How rows are divided into tiles: the first `longer` of them have one row more than the others. */
typedef struct fr_dot_rows {
    int64_t tiles, longer;
    int least_rows, most_rows;
} fr_dot_rows;

static fr_dot_rows divide_rows(int64_t rows, int gates)
{
    fr_dot_rows t = {.tiles = 1, .least_rows = 1, .most_rows = 1};
    if (rows > 1) { /* no divisions for one row */
        t.tiles = fr_ceil_div(rows, fr_min(FR_INT8_TILE_ROWS, FR_INT8_TILE_VECTORS / gates));
        t.least_rows = (int)(rows / t.tiles);
        t.longer = rows - t.least_rows * t.tiles;
        t.most_rows = t.least_rows + (t.longer > 0);
    }
    return t;
}

/* The next tile's number of blocks, as index in a row of the tables; it never grows. */
static int next_shape(int shape, const fr_dot_rows *t, int gates, int64_t blocks_left)
{
    while (shape > 0 && (blocks_left < 1 << shape || (t->most_rows * gates) << shape > FR_INT8_TILE_VECTORS ||
                         (t->most_rows == 1 && gates << (shape - 1) >= FR_INT8_CHAINS)))
        shape--;
    return shape;
}

/* next: the panel that is read after this one, or NULL. */
static void dots(fr_dot_tile *const tiles[][4], const fr_dot_rows *t, int shape, fr_dots *d, int64_t block,
                 const char *next)
{
    int64_t row = 0;
    for (int64_t tile = 0; tile < t->tiles; tile++) {
        d->prefetch = next && tile < PREFETCHING_TILES ? next + tile * (d->weights->panel_stride / PREFETCHING_TILES) : NULL;
        const int tile_rows = t->least_rows + (tile < t->longer);
        tiles[tile_rows - 1][shape](d, row, block);
        row += tile_rows;
    }
}

static fr_vectors vectors_at(const real *first, int64_t row, int64_t block)
{
    return (fr_vectors){(real *)(uintptr_t)first, row, block};
}

static void product_int8(const fr_product_args *a)
{
    if (a->rows == 0)
        return;
    fr_quantized in;
    quantize(a->rows, a->k, a->in, a->in_stride, NULL, a->scratch, &in);
    const int gates = a->gates == 2 ? 1 : a->gates; /* of a tile */
    const int64_t last = (gates - 1) * a->out_gate_stride, row = a->out_row_stride, block = a->out_block_stride;
    const fr_dot_rows t = divide_rows(a->rows, gates);
    const bool prefetches = t.tiles > 1 && a->blocks * a->weights.panel_stride >= PREFETCHED_PANELS;
    for (int first_gate = 0; first_gate < a->gates; first_gate += gates) {
        const real *out = (const real *)a->out + first_gate * a->out_gate_stride;
        const real *base = a->bias ? (const real *)a->bias + first_gate * a->out_gate_stride : out;
        const int64_t base_row = a->bias ? 0 : row;
        const fr_weights weights = {.panels = (const char *)a->weights.panels + first_gate * FR_V * 4,
                                    .panel_stride = a->weights.panel_stride,
                                    .scales = (const real *)a->weights.scales + first_gate * FR_V};
        fr_dots d = {
            .in = &in, .groups = fr_ceil_div(a->k, 4), .weights = &weights, .panel_gates = a->gates, .gate = a->out_gate_stride,
            .base = vectors_at(base, base_row, block), .last_base = vectors_at(base + last, base_row, block),
            .out = vectors_at(out, row, block), .last_out = vectors_at(out + last, row, block),
        };
        int shape = 3;
        for (int64_t at = 0; at < a->blocks; at += 1 << shape) {
            shape = next_shape(shape, &t, gates, a->blocks - at);
            dots(dot_tiles[gates], &t, shape, &d, at, prefetches ? w_panel(&weights, at + (1 << shape)) : NULL);
        }
    }
}

/* The products of a few blocks of all rows go to a buffer that stays in the cache, [block][row][FR_SAVED(gates)][V]; then the
 * gates of these blocks are computed. */
FR_INLINE void step_int8(const fr_step_args *a, const fastrnn_kind kind)
{
    const int gates = kind == FASTRNN_LSTM ? 4 : kind == FASTRNN_GRU ? 3 : 1;
    /* Elements of the buffer; a row of bias and pre has blocks of `row`, too. */
    const int64_t row = FR_SAVED(gates) * FR_V, block = a->rows * row;
    /* Of the last gate: in bias and pre, and in the buffer. A GRU's candidate gate has two columns: what x and what h give. */
    const int64_t last = (gates - 1) * FR_V, other = kind == FASTRNN_GRU ? 3 * FR_V : last;
    if (a->rows == 0)
        return;
    fr_quantized x, h;
    char *rest = quantize(a->rows, a->h_size, NULL, 0, a->h_in, a->scratch, &h);
    if (a->x)
        rest = quantize(a->rows, a->input_size, a->x, a->x_stride, NULL, rest, &x);
    real *buffer = (real *)(void *)rest;
    const real *bias = a->bias, *pre = a->pre;
    fr_dots of_x = {.in = &x, .groups = fr_ceil_div(a->input_size, 4), .weights = &a->weight_ih, .panel_gates = gates,
                    .gate = FR_V,
                    .base = vectors_at(bias, 0, row), .last_base = vectors_at(bias + last, 0, row)};
    fr_dots of_h = {.in = &h, .groups = fr_ceil_div(a->h_size, 4), .weights = &a->weight_hh, .panel_gates = gates,
                    .gate = FR_V,
                    .base = vectors_at(pre, a->pre_stride, row), .last_base = vectors_at(pre + last, a->pre_stride, row)};
    if (kind == FASTRNN_GRU)
        of_h.last_base = vectors_at(bias + other, 0, row);
    const fr_dot_rows t = divide_rows(a->rows, gates);
    const bool prefetches = t.tiles > 1 && a->blocks * a->weight_hh.panel_stride >= PREFETCHED_PANELS;
    int shape = 3;
    for (int64_t at = 0, count; at < a->blocks; at += count) {
        shape = next_shape(shape, &t, gates, a->blocks - at);
        count = 1 << shape;
        const int64_t start = a->backwards ? a->blocks - at - count : at;
        real *out = buffer - start * block;
        of_h.out = vectors_at(out, row, block);
        of_h.last_out = vectors_at(out + last, row, block);
        if (a->x) {
            of_x.out = of_h.base = of_h.out;
            of_x.last_out = vectors_at(out + other, row, block);
            if (kind != FASTRNN_GRU)
                of_h.last_base = of_x.last_out;
            dots(dot_tiles[gates], &t, shape, &of_x, start, prefetches ? w_panel(&a->weight_hh, start) : NULL);
        } else if (kind == FASTRNN_GRU) {
            for (int64_t r = 0; r < a->rows; r++)
                for (int64_t b = 0; b < count; b++)
                    v_store(buffer + b * block + r * row + other, v_load(pre + r * a->pre_stride + (start + b) * row + last));
        }
        const int64_t next = a->backwards ? fr_max(start - count, 0) : start + count;
        dots(dot_tiles[gates], &t, shape, &of_h, start,
             prefetches ? w_panel(a->x ? &a->weight_ih : &a->weight_hh, next) : NULL);
        for (int64_t b = 0; b < count; b++)
            finish(a, 0, start + b, a->rows, (vf *)(void *)(buffer + b * block), kind);
    }
}

static void lstm_step_int8(const fr_step_args *a) { step_int8(a, FASTRNN_LSTM); }
static void gru_step_int8(const fr_step_args *a) { step_int8(a, FASTRNN_GRU); }
static void rnn_step_int8(const fr_step_args *a) { step_int8(a, FASTRNN_RNN); }

#endif
