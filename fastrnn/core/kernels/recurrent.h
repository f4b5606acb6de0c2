/* Matrix products with prepacked weights, and whole steps, which keep products, gates and new states in registers.
 *
 * A tile is a few rows times a few blocks of units. Its accumulators stay in registers for all of k. The shape of a tile
 * does not change the chain of multiply-adds of an element, so it may differ from call to call. `rows`, `nb`, `gates` and `type`
 * (of the weights) are constants wherever these functions are inlined.
 */
#ifndef FR_RECURRENT_H
#define FR_RECURRENT_H

#include "pointwise.h"
#include "weights.h"

#define FR_TILE_ROWS 6  /* at most */
#define FR_MAX_BLOCKS 8 /* blocks of units in a tile, at most */
#define FR_CHAINS 6     /* so many independent chains of multiply-adds keep pace with weights for one row that are read from L2 */

#ifndef FR_IN_MEMORY /* simd_<isa>.h defines them for compilers that need them */
#define FR_BEFORE_NEXT_LOAD(v) (void)0
#define FR_IN_MEMORY(array) (void)0
#endif

/* One column of accumulate(): acc[rows][nb][gates] += in[.][i] * weights[.][i]. Whichever are fewer, the column's inputs or its
 * weights, are held in registers while the others are loaded one after the other: with 12 accumulators in 16 registers, four
 * are left. */
FR_INLINE void accumulate_column(vf *restrict acc, const int rows, const int nb, const int gates, const fr_weight_type type,
                                 const real *in, int64_t in_stride, const char *panels, int64_t stride)
{
    const int64_t vector = FR_V * fr_weight_size(type);
    const bool hold_inputs = rows <= nb * gates;
    const int num_held = hold_inputs ? rows : nb * gates, num_passing = hold_inputs ? nb * gates : rows;
#define FR_INPUT(row) v_broadcast(in + (row) * in_stride)
#define FR_WEIGHT(n) w_load(type, panels + (n) / gates * stride + (n) % gates * vector)
    vf held[FR_TILE_ROWS];
    FR_UNROLL
    for (int n = 0; n < num_held; n++)
        held[n] = hold_inputs ? FR_INPUT(n) : FR_WEIGHT(n);
    FR_UNROLL
    for (int m = 0; m < num_passing; m++) {
        const vf passing = hold_inputs ? FR_WEIGHT(m) : FR_INPUT(m);
        FR_UNROLL
        for (int n = 0; n < num_held; n++) {
            const int row = hold_inputs ? n : m, weight = hold_inputs ? m : n;
            vf *a = &acc[row * nb * gates + weight];
            *a = v_fma(held[n], passing, *a);
            if (!hold_inputs)
                FR_BEFORE_NEXT_LOAD(*a);
        }
    }
#undef FR_INPUT
#undef FR_WEIGHT
}

/* A part of the columns of both matrices. Where several tiles of rows use the same panel, and the panels are read from an outer
 * cache, a panel is divided into chunks that fit the L1 cache: each tile of rows computes one chunk before the first of them
 * computes the next. Meanwhile the accumulators are saved, which does not change their bits. */
typedef struct fr_chunk {
    int64_t x_begin, x_end, h_begin, h_end; /* columns; either those of x or those of h are none */
    vf *saved;                              /* [rows][FR_SAVED] */
    const char *prefetch;                   /* this tile's share of the next chunk */
    int64_t prefetch_step;                  /* bytes of it for each column that the tile computes */
} fr_chunk;

#define FR_SAVED 4 /* vectors of a row of one block: its accumulators, and in a GRU n_input */

/* acc[rows][nb][gates] += in . weights, for columns [begin, end) of the panels from block0 on. chunk: as of the tile, or NULL. Two
 * columns at once only where inputs are held: gcc 12 orders the others' loads badly. */
FR_INLINE void accumulate(vf *restrict acc, const int rows, const int nb, const int gates, const fr_weight_type type,
                          const real *in, int64_t in_stride, const fr_weights *weights, int64_t block0, int64_t begin,
                          int64_t end, const fr_chunk *chunk, const bool chunked)
{
    const int64_t stride = weights->panel_stride, column = gates * FR_V * fr_weight_size(type);
    const char *panels = w_panel(weights, block0) + begin * column;
    int64_t k = end - begin;
    in += begin;
    if (chunked && rows <= nb * gates) {
        const char *next = chunk->prefetch;
        for (; k >= 2; k -= 2, in += 2, panels += 2 * column, next += 2 * chunk->prefetch_step) {
            __builtin_prefetch(next);
            __builtin_prefetch(next + FR_ALIGNMENT);
            accumulate_column(acc, rows, nb, gates, type, in, in_stride, panels, stride);
            accumulate_column(acc, rows, nb, gates, type, in + 1, in_stride, panels + column, stride);
        }
    } else if (chunked) {
        const char *next = chunk->prefetch;
        for (; k > 0; k--, in++, panels += column, next += chunk->prefetch_step) {
            __builtin_prefetch(next);
            accumulate_column(acc, rows, nb, gates, type, in, in_stride, panels, stride);
        }
        return;
    }
    for (; k > 0; k--, in++, panels += column)
        accumulate_column(acc, rows, nb, gates, type, in, in_stride, panels, stride);
}

FR_INLINE void product_tile(const fr_product_args *a, int64_t row0, int64_t block0, const fr_chunk *chunk,
                            const bool chunked, const int rows, const int nb, const int gates, const fr_weight_type type)
{
    vf acc[FR_TILE_VECTORS];
    real *out = (real *)a->out + row0 * a->out_row_stride + block0 * a->out_block_stride;
    const real *bias = a->bias && !(chunked && chunk->h_begin > 0) ? (const real *)a->bias + block0 * a->out_block_stride : NULL;
    FR_UNROLL
    for (int row = 0; row < rows; row++)
        FR_UNROLL
        for (int b = 0; b < nb; b++)
            FR_UNROLL
            for (int j = 0; j < gates; j++) {
                int64_t at = b * a->out_block_stride + j * a->out_gate_stride;
                acc[(row * nb + b) * gates + j] = v_load(bias ? bias + at : out + row * a->out_row_stride + at);
            }
    accumulate(acc, rows, nb, gates, type, (const real *)a->in + row0 * a->in_stride, a->in_stride,
               &a->weights, block0, chunked ? chunk->h_begin : 0, chunked ? chunk->h_end : a->k, chunk, chunked);
    FR_UNROLL
    for (int row = 0; row < rows; row++)
        FR_UNROLL
        for (int b = 0; b < nb; b++)
            FR_UNROLL
            for (int j = 0; j < gates; j++)
                v_store(out + row * a->out_row_stride + b * a->out_block_stride + j * a->out_gate_stride,
                        acc[(row * nb + b) * gates + j]);
}

/* The gates of rows of one block whose accumulators are saved. Each operation of an LSTM's cell depends on the one before; two
 * passes over many cells give a processor independent ones. The bits are those of lstm_cell. */
static __attribute__((noinline)) void lstm_gates(const fr_step_args *a, int64_t row0, int64_t block, int64_t rows, vf *saved)
{
    real *c = (real *)a->c + row0 * a->c_stride + block * FR_V;
    for (int64_t row = 0; row < rows; row++, c += a->c_stride) {
        vf *g = &saved[row * FR_SAVED];
        const vf new_c = v_fma(v_sigmoid(g[1]), v_load(c), v_sigmoid_tanh(g[0], g[2]));
        store_state(c, new_c);
        g[0] = new_c;
        g[1] = v_sigmoid_under(g[3]);
    }
    real *h = (real *)a->h_out + row0 * a->h_out_stride + block * FR_V;
    for (int64_t row = 0; row < rows; row++, h += a->h_out_stride)
        store_state(h, v_tanh_over(saved[row * FR_SAVED], saved[row * FR_SAVED + 1]));
}

static __attribute__((noinline)) void gru_gates(const fr_step_args *a, int64_t row0, int64_t block, int64_t rows, vf *saved)
{
    const real *h_old = (const real *)a->h_old + row0 * a->h_in_stride + block * FR_V;
    real *h = (real *)a->h_out + row0 * a->h_out_stride + block * FR_V;
    for (int64_t row = 0; row < rows; row++, h += a->h_out_stride, h_old += a->h_in_stride) {
        const vf *g = &saved[row * FR_SAVED];
        store_state(h, gru_cell(v_sigmoid(g[0]), v_sigmoid(g[1]), g[3], g[2], v_load(h_old), NULL));
    }
}

static __attribute__((noinline)) void rnn_gates(const fr_step_args *a, int64_t row0, int64_t block, int64_t rows, vf *saved)
{
    real *h = (real *)a->h_out + row0 * a->h_out_stride + block * FR_V;
    for (int64_t row = 0; row < rows; row++, h += a->h_out_stride) {
        const vf g = saved[row * FR_SAVED];
        store_state(h, a->activation == FASTRNN_RELU ? v_relu(g) : v_tanh(g));
    }
}

FR_INLINE void finish(const fr_step_args *a, int64_t row0, int64_t block, int64_t rows, vf *saved, const fastrnn_kind kind)
{
    switch (kind) {
    case FASTRNN_LSTM: lstm_gates(a, row0, block, rows, saved); break;
    case FASTRNN_GRU: gru_gates(a, row0, block, rows, saved); break;
    case FASTRNN_RNN: rnn_gates(a, row0, block, rows, saved); break;
    }
}

FR_INLINE void step_tile(const fr_step_args *a, int64_t row0, int64_t block0, const fr_chunk *chunk, const bool chunked,
                         const int rows, const int nb, const fastrnn_kind kind, const fr_weight_type type)
{
    const int gates = kind == FASTRNN_LSTM ? 4 : kind == FASTRNN_GRU ? 3 : 1;
    const int64_t column_block = (kind == FASTRNN_GRU ? 4 : gates) * FR_V;
    vf acc[FR_TILE_VECTORS];
    const real *bias = (const real *)a->bias + block0 * column_block;
    const int64_t x_begin = chunked ? chunk->x_begin : 0, x_end = chunked ? chunk->x_end : a->x ? a->input_size : 0,
                  h_begin = chunked ? chunk->h_begin : 0, h_end = chunked ? chunk->h_end : a->h_size;
    const bool begins = !chunked || (x_begin == 0 && h_begin == 0);
    vf n_input[FR_TILE_VECTORS / 3]; /* GRU: moved here so that the accumulators hold n_hidden */
    if (begins) {
        const real *pre = a->x ? bias : (const real *)a->pre + row0 * a->pre_stride + block0 * column_block;
        const int64_t pre_stride = a->x ? 0 : a->pre_stride;
        FR_UNROLL
        for (int row = 0; row < rows; row++)
            FR_UNROLL
            for (int b = 0; b < nb; b++)
                FR_UNROLL
                for (int j = 0; j < gates; j++)
                    acc[(row * nb + b) * gates + j] = v_load(pre + row * pre_stride + b * column_block + j * FR_V);
    } else {
        FR_UNROLL
        for (int row = 0; row < rows; row++)
            FR_UNROLL
            for (int j = 0; j < gates; j++)
                acc[row * gates + j] = chunk->saved[row * FR_SAVED + j];
    }
    if (x_begin < x_end)
        accumulate(acc, rows, nb, gates, type, (const real *)a->x + row0 * a->x_stride, a->x_stride, &a->weight_ih, block0, x_begin,
                   x_end, chunk, chunked);
    if (kind == FASTRNN_GRU) {
        const bool continues = h_begin > 0, switches = h_begin == 0 && h_end > 0;
        FR_UNROLL
        for (int row = 0; row < rows; row++)
            FR_UNROLL
            for (int b = 0; b < nb; b++) {
                const int at = row * nb + b;
                n_input[at] = continues ? chunk->saved[row * FR_SAVED + 3] : acc[at * gates + 2];
                if (switches)
                    acc[at * gates + 2] = v_load(bias + b * column_block + 3 * FR_V);
            }
        FR_IN_MEMORY(n_input); /* it is not used while h is multiplied */
    }
    if (!chunked || h_begin < h_end)
        accumulate(acc, rows, nb, gates, type, (const real *)a->h_in + row0 * a->h_in_stride, a->h_in_stride, &a->weight_hh, block0,
                   h_begin, h_end, chunk, chunked);
    if (!chunked && rows == 1) {
        FR_UNROLL
        for (int b = 0; b < nb; b++) {
            const vf *g = &acc[b * gates];
            const int64_t unit = (block0 + b) * FR_V;
            real *h_out = (real *)a->h_out + row0 * a->h_out_stride + unit;
            if (kind == FASTRNN_LSTM) {
                real *c = (real *)a->c + row0 * a->c_stride + unit;
                store_state(h_out, lstm_cell(g, c, NULL, NULL, 0));
            } else if (kind == FASTRNN_GRU) {
                vf h = v_load((const real *)a->h_old + row0 * a->h_in_stride + unit);
                store_state(h_out, gru_cell(v_sigmoid(g[0]), v_sigmoid(g[1]), n_input[b], g[2], h, NULL));
            } else {
                store_state(h_out, a->activation == FASTRNN_RELU ? v_relu(g[0]) : v_tanh(g[0]));
            }
        }
        return;
    }
    vf own[FR_TILE_VECTORS * FR_SAVED];
    vf *saved = chunked ? chunk->saved : own;
    FR_UNROLL
    for (int b = 0; b < nb; b++)
        FR_UNROLL
        for (int row = 0; row < rows; row++) {
            vf *to = &saved[(b * rows + row) * FR_SAVED];
            FR_UNROLL
            for (int j = 0; j < gates; j++)
                to[j] = acc[(row * nb + b) * gates + j];
            if (kind == FASTRNN_GRU)
                to[3] = n_input[row * nb + b];
        }
    for (int b = 0; !chunked && b < nb; b++)
        finish(a, row0, block0 + b, rows, &saved[b * rows * FR_SAVED], kind);
}

typedef void fr_tile(const void *args, int64_t row, int64_t block, const fr_chunk *chunk);

/* Indices in a row of the tables, after the tiles of 1, 2, 4 and 8 blocks: a chunked tile of one block; one of 3 blocks. */
enum { FR_CHUNKED = 4, FR_THREE_BLOCKS, FR_NUM_SHAPES };

/* Measured on a Zen 3 with AVX2, whose L1 cache has 32 KiB and whose L2 cache has 512 KiB. */
#define CHUNK_BYTES (16 << 10)
#define CHUNKED_WEIGHTS (2 << 20) /* bytes of weights from which on chunks are faster */
#define GROUP_TILES 12            /* of rows that compute a chunk in turn; if there are more, whole panels are as fast */

/* The two matrices of a step; a product has h only. */
typedef struct fr_operands {
    const fr_weights *x, *h;
    int64_t x_columns, h_columns, column_bytes;
    const fr_step_args *step; /* NULL for a product */
    fastrnn_kind kind;
} fr_operands;

/* How rows are divided into tiles: the first `longer` of them have one row more than the others. */
typedef struct fr_row_tiles {
    int64_t count, longer;
    int least_rows;
} fr_row_tiles;

/* The chunk that begins at column `begin`, counted through both matrices. Returns its end. */
static int64_t next_chunk(const fr_operands *o, int64_t begin, int64_t most_columns, fr_chunk *chunk)
{
    const bool of_x = begin < o->x_columns;
    const int64_t end = fr_min(begin + most_columns, of_x ? o->x_columns : o->x_columns + o->h_columns);
    chunk->x_begin = of_x ? begin : o->x_columns;
    chunk->x_end = of_x ? end : o->x_columns;
    chunk->h_begin = of_x ? 0 : begin - o->x_columns;
    chunk->h_end = of_x ? 0 : end - o->x_columns;
    return end;
}

/* The weights of a block from column `column` on, counted through both matrices. */
static const char *weights_at(const fr_operands *o, int64_t block, int64_t column)
{
    const bool of_x = column < o->x_columns;
    return w_panel(of_x ? o->x : o->h, block) + (of_x ? column : column - o->x_columns) * o->column_bytes;
}

/* All rows of one block, chunk by chunk. next_block: the one that is computed after it, or the same. */
static void walk_chunks(fr_tile *const tiles[][FR_NUM_SHAPES], const void *args, const fr_operands *o, fr_row_tiles t, int64_t block,
                        int64_t next_block, int64_t most_columns)
{
    const int64_t columns = o->x_columns + o->h_columns;
    vf saved[GROUP_TILES * FR_TILE_ROWS * FR_SAVED];
    int64_t row0 = 0;
    for (int64_t tile0 = 0; tile0 < t.count; tile0 += GROUP_TILES) {
        const int64_t last_tile = fr_min(tile0 + GROUP_TILES, t.count);
        int64_t row = row0;
        for (int64_t begin = 0, end; begin < columns; begin = end) {
            fr_chunk chunk;
            end = next_chunk(o, begin, most_columns, &chunk);
            chunk.prefetch_step = o->column_bytes / (last_tile - tile0);
            chunk.prefetch = end < columns        ? weights_at(o, block, end)
                             : last_tile < t.count ? weights_at(o, block, 0)
                                                   : weights_at(o, next_block, 0);
            row = row0;
            for (int64_t tile = tile0; tile < last_tile; tile++) {
                const int tile_rows = t.least_rows + (tile < t.longer);
                chunk.saved = &saved[(row - row0) * FR_SAVED];
                tiles[tile_rows - 1][FR_CHUNKED](args, row, block, &chunk);
                chunk.prefetch += (end - begin) * chunk.prefetch_step;
                row += tile_rows;
            }
        }
        if (o->step)
            finish(o->step, row0, block, row - row0, saved, o->kind);
        row0 = row;
    }
}

/* Divides rows x blocks into tiles. The outer loop is over blocks, so that a panel is read from memory or an outer cache once
 * for all rows. A single row reads each panel once; its tiles have the fewest blocks that give FR_CHAINS chains, so that
 * the panels of the last tiles are what stays cached. */
static void walk(fr_tile *const tiles[][FR_NUM_SHAPES], int gates, const void *args, const fr_operands *o, int64_t rows, int64_t blocks,
                 bool backwards)
{
    if (rows == 0)
        return;
    fr_row_tiles t = {.count = 1, .least_rows = 1};
    int most_rows = 1;
    if (rows > 1) { /* no divisions for one row: a step of a stream may take only 0.1 us */
        t.count = fr_ceil_div(rows, fr_min(FR_TILE_ROWS, FR_TILE_VECTORS / gates));
        t.least_rows = (int)(rows / t.count);
        t.longer = rows - t.least_rows * t.count;
        most_rows = t.least_rows + (t.longer > 0);
    }
    const bool chunked = t.count <= GROUP_TILES && (o->x_columns + o->h_columns) * o->column_bytes * blocks >= CHUNKED_WEIGHTS;
    int nb = FR_MAX_BLOCKS, shape = 3; /* index in a row of `tiles`: log2 of nb, or a name */
    for (int64_t block = 0; block < blocks; block += nb) {
        for (; nb > 1 && (block + nb > blocks || nb * most_rows * gates > FR_TILE_VECTORS ||
                          (most_rows == 1 && nb / 2 * gates >= FR_CHAINS)); shape--)
            nb /= 2;
        /* After a tile of two, a last one of a single block would wait for the latency of its gates. */
        if (rows == 1 && nb == 2 && blocks - block == 3 && 3 * gates <= FR_TILE_VECTORS) {
            nb = 3;
            shape = FR_THREE_BLOCKS;
        }
        const int64_t start = backwards ? blocks - block - nb : block;
        if (t.count > 2 && nb == 1 && (chunked || (o->step && o->kind == FASTRNN_LSTM))) {
            const int64_t next = block + 1 == blocks ? start : backwards ? start - 1 : start + 1;
            walk_chunks(tiles, args, o, t, start, next, chunked ? CHUNK_BYTES / o->column_bytes : INT32_MAX);
            continue;
        }
        int64_t row = 0;
        for (int64_t tile = 0; tile < t.count; tile++) {
            const int tile_rows = t.least_rows + (tile < t.longer);
            tiles[tile_rows - 1][shape](args, row, start, NULL);
            row += tile_rows;
        }
    }
}

/* Each shape of a tile is a function that is not inlined in walk(): otherwise the compiler would keep the constants of the
 * gate arithmetic in registers across tiles, and accumulators in memory. */
#define FR_TILE_FITS(R, N, COLUMNS) ((R) <= FR_TILE_ROWS && (R) * (N) * (COLUMNS) <= FR_TILE_VECTORS)
#define FR_TILE(NAME, R, N, COLUMNS, TILE, ...)                                                                       \
    static __attribute__((noinline)) void NAME##_##R##x##N(const void *args, int64_t row, int64_t block, const fr_chunk *chunk) \
    {                                                                                                               \
        const bool fits = FR_TILE_FITS(R, N, COLUMNS);                                                                \
        (void)chunk;                                                                                                \
        TILE(args, row, block, NULL, false, fits ? (R) : 1, fits ? (N) : 1, __VA_ARGS__);                           \
    }
#define FR_CHUNKED_TILE(NAME, R, COLUMNS, TILE, ...)                                                                  \
    static __attribute__((noinline)) void NAME##_##R##_chunked(const void *args, int64_t row, int64_t block, const fr_chunk *chunk) \
    {                                                                                                               \
        const bool fits = FR_TILE_FITS(R, 1, COLUMNS);                                                                \
        TILE(args, row, block, chunk, true, fits ? (R) : 1, 1, __VA_ARGS__);                                        \
    }
#define FR_TILE_IF_FITS(NAME, R, N, COLUMNS) FR_TILE_FITS(R, N, COLUMNS) ? NAME##_##R##x##N : NULL
#define FR_TILES(NAME, R, ...)                                                                                      \
    FR_CHUNKED_TILE(NAME, R, __VA_ARGS__)                                                                            \
    FR_TILE(NAME, R, 1, __VA_ARGS__)                                                                                \
    FR_TILE(NAME, R, 2, __VA_ARGS__)                                                                                \
    FR_TILE(NAME, R, 4, __VA_ARGS__)                                                                                \
    FR_TILE(NAME, R, 8, __VA_ARGS__)
#define FR_TILE_ROW(NAME, R, COLUMNS)                                                                                 \
    {FR_TILE_IF_FITS(NAME, R, 1, COLUMNS), FR_TILE_IF_FITS(NAME, R, 2, COLUMNS), FR_TILE_IF_FITS(NAME, R, 4, COLUMNS),    \
     FR_TILE_IF_FITS(NAME, R, 8, COLUMNS), NAME##_##R##_chunked, (R) == 1 ? FR_TILE_IF_FITS(NAME, 1, 3, COLUMNS) : NULL}
#define FR_DEFINE_TILES(NAME, COLUMNS, ...)                                                                           \
    FR_TILE(NAME, 1, 3, COLUMNS, __VA_ARGS__)                                                                         \
    FR_TILES(NAME, 1, COLUMNS, __VA_ARGS__)                                                                           \
    FR_TILES(NAME, 2, COLUMNS, __VA_ARGS__)                                                                           \
    FR_TILES(NAME, 3, COLUMNS, __VA_ARGS__)                                                                           \
    FR_TILES(NAME, 4, COLUMNS, __VA_ARGS__)                                                                           \
    FR_TILES(NAME, 5, COLUMNS, __VA_ARGS__)                                                                           \
    FR_TILES(NAME, 6, COLUMNS, __VA_ARGS__)                                                                           \
    static fr_tile *const NAME##_tiles[6][FR_NUM_SHAPES] = {                                                                    \
        FR_TILE_ROW(NAME, 1, COLUMNS), FR_TILE_ROW(NAME, 2, COLUMNS), FR_TILE_ROW(NAME, 3, COLUMNS),                      \
        FR_TILE_ROW(NAME, 4, COLUMNS), FR_TILE_ROW(NAME, 5, COLUMNS), FR_TILE_ROW(NAME, 6, COLUMNS)};

/* The four kernels for weights of one type: product_NAME, lstm_step_NAME, gru_step_NAME, rnn_step_NAME. */
#define FR_DEFINE_KERNELS(NAME, TYPE)                                                                                 \
    FR_DEFINE_TILES(product_1_##NAME, 1, product_tile, 1, TYPE)                                                       \
    FR_DEFINE_TILES(product_2_##NAME, 2, product_tile, 2, TYPE)                                                       \
    FR_DEFINE_TILES(product_3_##NAME, 3, product_tile, 3, TYPE)                                                       \
    FR_DEFINE_TILES(product_4_##NAME, 4, product_tile, 4, TYPE)                                                       \
    FR_DEFINE_TILES(lstm_##NAME, 4, step_tile, FASTRNN_LSTM, TYPE)                                                    \
    FR_DEFINE_TILES(gru_##NAME, 3, step_tile, FASTRNN_GRU, TYPE)                                                      \
    FR_DEFINE_TILES(rnn_##NAME, 1, step_tile, FASTRNN_RNN, TYPE)                                                      \
    static void product_##NAME(const fr_product_args *a)                                                             \
    {                                                                                                               \
        static fr_tile *const (*const by_gates[])[FR_NUM_SHAPES] = {product_1_##NAME##_tiles, product_2_##NAME##_tiles, \
                                                                    product_3_##NAME##_tiles, product_4_##NAME##_tiles}; \
        product(by_gates[a->gates - 1], a, TYPE);                                                                    \
    }                                                                                                               \
    static void lstm_step_##NAME(const fr_step_args *a) { step(lstm_##NAME##_tiles, 4, a, FASTRNN_LSTM, TYPE); }               \
    static void gru_step_##NAME(const fr_step_args *a) { step(gru_##NAME##_tiles, 3, a, FASTRNN_GRU, TYPE); }                \
    static void rnn_step_##NAME(const fr_step_args *a) { step(rnn_##NAME##_tiles, 1, a, FASTRNN_RNN, TYPE); }

FR_INLINE void product(fr_tile *const tiles[][FR_NUM_SHAPES], const fr_product_args *a, const fr_weight_type type)
{
    const fr_operands operands = {.h = &a->weights, .h_columns = a->k, .column_bytes = a->gates * FR_V * fr_weight_size(type)};
    walk(tiles, a->gates, a, &operands, a->rows, a->blocks, false);
}

FR_INLINE void step(fr_tile *const tiles[][FR_NUM_SHAPES], const int columns, const fr_step_args *a, const fastrnn_kind kind,
                    const fr_weight_type type)
{
    const fr_operands operands = {.x = &a->weight_ih, .h = &a->weight_hh, .x_columns = a->x ? a->input_size : 0,
                                  .h_columns = a->h_size, .column_bytes = columns * FR_V * fr_weight_size(type),
                                  .step = a, .kind = kind};
    walk(tiles, columns, a, &operands, a->rows, a->blocks, a->backwards);
}

FR_DEFINE_KERNELS(float32, FR_WEIGHT_FLOAT32)
FR_DEFINE_KERNELS(float16, FR_WEIGHT_FLOAT16)

#endif
