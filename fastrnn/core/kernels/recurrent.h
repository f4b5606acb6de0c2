/* Matrix products with prepacked weights, and whole steps, which keep products, gates and new states in registers.
 *
 * A tile is a few rows times a few blocks of units. Its accumulators stay in registers for all of k. The shape of a tile
 * does not change the chain of multiply-adds of an element, so it may differ from call to call. `rows`, `nb`, `gates` and `type`
 * (of the weights) are constants wherever these functions are inlined.
 */
#ifndef FR_RECURRENT_H
#define FR_RECURRENT_H

#include "gates.h"
#include "weights.h"

#define FR_TILE_ROWS 6  /* at most */
#define FR_MAX_BLOCKS 8 /* blocks of units in a tile, at most */
#define FR_CHAINS 6     /* so many independent chains of multiply-adds keep pace with weights for one row that are read from L2 */

#ifndef FR_IN_MEMORY /* simd_<isa>.h defines them for compilers that need them */
#define FR_BEFORE_NEXT_LOAD(v) (void)0
#define FR_IN_MEMORY(array) (void)0
#endif

/* Distances of a tile's rows from the first one, in bytes. They are integers, as the rows may be in memory of different objects. */
typedef struct fr_distances {
    uintptr_t row[FR_TILE_ROWS];
} fr_distances;

FR_INLINE fr_distances distances_of_stride(const int rows, int64_t stride)
{
    fr_distances d = {{0}};
    FR_UNROLL
    for (int row = 1; row < rows; row++)
        d.row[row] = (uintptr_t)(row * stride) * sizeof(real);
    return d;
}

FR_INLINE fr_distances distances_of(const int rows, void *const *addresses)
{
    fr_distances d = {{0}};
    FR_UNROLL
    for (int row = 1; row < rows; row++)
        d.row[row] = (uintptr_t)addresses[row] - (uintptr_t)addresses[0];
    return d;
}

/* One column of accumulate(): acc[rows][nb][gates] += in[.][i] * weights[.][i]. Whichever are fewer, the column's inputs or its
 * weights, are held in registers while the others are loaded one after the other: with 12 accumulators in 16 registers, four
 * are left. stride: bytes from a block's weights to those of the next. widened: where the weights are left as reals, or NULL. */
FR_INLINE void accumulate_column(vf *restrict acc, const int rows, const int nb, const int gates, const fr_weight_type type,
                                 const real *in, const fr_distances d, const char *weights, int64_t stride, char *widened,
                                 int64_t widened_stride)
{
    const bool hold_inputs = rows <= nb * gates;
    const int num_held = hold_inputs ? rows : nb * gates, num_passing = hold_inputs ? nb * gates : rows;
#define FR_INPUT(n) v_broadcast((const real *)((uintptr_t)in + d.row[n]))
#define FR_WEIGHT(n)                                                                                                  \
    w_load(type, weights + (n) / gates * stride, (n) % gates, widened ? widened + (n) / gates * widened_stride : NULL)
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

/* A part of the columns of both matrices. Where several tiles of rows use the same panels, a chunk of the panels' columns fits the
 * L1 cache: each tile of rows computes it before the first of them computes the next. Meanwhile the accumulators are saved,
 * which does not change their bits. That pays where the panels are read from an outer cache, and where weights are smaller than
 * reals: then the first tile of rows leaves them as reals for the others. The next chunk is prefetched in several streams, which
 * processors deliver faster from an outer cache or memory than a single one. */
typedef struct fr_chunk {
    int64_t x_begin, x_end, h_begin, h_end; /* columns; either those of x or those of h are none */
    vf *saved;                              /* [nb][rows][FR_SAVED(gates)], this tile's rows */
    int64_t saved_stride;                   /* vectors from a block to the next */
    const char *weights;                    /* of the first column */
    int64_t stride;                         /* bytes from a block to the next */
    char *widened;                          /* [nb][columns][gates][V] reals */
    int64_t widened_stride;                 /* bytes from a block to the next */
    const char *prefetch;                   /* this tile's share of the next chunk: where it begins in the first stream */
    int64_t prefetch_step;                  /* bytes of each stream for each column that the tile computes */
    int64_t stream_stride;                  /* bytes from a stream to the next; FR_ALIGNMENT: there is one, read line by line */
} fr_chunk;

#define FR_CHUNK_BLOCKS(GATES) (4 / (GATES)) /* blocks of a chunked tile */
#define FR_STREAMS(BLOCKS) ((BLOCKS) > 1 ? (BLOCKS) : 2) /* parts of a chunk that are prefetched side by side: blocks, or halves */
#define FR_MOST_SAVED (FR_TILE_VECTORS / 3 * 4)      /* of a tile */

/* acc[rows][nb][gates] += in . weights, for columns [begin, end) of the panels from block0 on. chunk: as of the tile, or NULL. Two
 * columns at once only where inputs are held: gcc 12 orders the others' loads badly. */
FR_INLINE void accumulate(vf *restrict acc, const int rows, const int nb, const int gates, const fr_weight_type type,
                          const real *in, const fr_distances d, const fr_weights *weights, int64_t block0, int64_t begin,
                          int64_t end, const fr_chunk *chunk, const bool chunked)
{
    const int64_t column = gates * FR_V * fr_weight_size(type), real_column = gates * FR_V * (int64_t)sizeof(real);
    const bool widens = chunked && type != FR_WEIGHT_FLOAT32;
    const int64_t stride = chunked ? chunk->stride : weights->panel_stride, widened_stride = widens ? chunk->widened_stride : 0;
    const char *at = chunked ? chunk->weights : w_panel(weights, block0) + begin * column;
    char *widened = widens ? chunk->widened : NULL;
    int64_t k = end - begin;
    in += begin;
#define FR_COLUMN(i)                                                                                                  \
    accumulate_column(acc, rows, nb, gates, type, in + (i), d, at + (i) * column, stride,                             \
                      widens ? widened + (i) * real_column : NULL, widened_stride)
#define FR_ADVANCE(n) (k -= (n), in += (n), at += (n) * column, widened += widens ? (n) * real_column : 0)
    const char *next = chunked ? chunk->prefetch : NULL;
    const int64_t stream_stride = chunked ? chunk->stream_stride : 0, step = chunked ? chunk->prefetch_step : 0;
    const int num_streams = FR_STREAMS(nb);
    if (chunked && rows <= nb * gates) {
        const bool every_column = nb * column > 2 * FR_ALIGNMENT; /* else each stream in every other column */
#define FR_PREFETCH(i)                                                                                                \
    FR_UNROLL                                                                                                         \
    for (int stream = 0; stream < num_streams; stream++)                                                              \
        if (every_column || stream % 2 == (i))                                                                        \
            __builtin_prefetch(next + stream * stream_stride)
        for (; k >= 2; FR_ADVANCE(2), next += 2 * step) {
            FR_PREFETCH(0);
            FR_COLUMN(0);
            FR_PREFETCH(1);
            FR_COLUMN(1);
        }
#undef FR_PREFETCH
    } else if (chunked && stream_stride > FR_ALIGNMENT) {
        for (; k > 0; FR_ADVANCE(1), next += step) {
            FR_UNROLL
            for (int stream = 0; stream < num_streams; stream++)
                __builtin_prefetch(next + stream * stream_stride);
            FR_COLUMN(0);
        }
        return;
    } else if (chunked) {
        for (; k > 0; FR_ADVANCE(1), next += step) {
            __builtin_prefetch(next);
            FR_COLUMN(0);
        }
        return;
    }
    for (; k > 0; FR_ADVANCE(1))
        FR_COLUMN(0);
#undef FR_COLUMN
#undef FR_ADVANCE
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
    accumulate(acc, rows, nb, gates, type, (const real *)a->in + row0 * a->in_stride, distances_of_stride(rows, a->in_stride),
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
            for (int b = 0; b < nb; b++)
                FR_UNROLL
                for (int j = 0; j < gates; j++)
                    acc[(row * nb + b) * gates + j] = chunk->saved[b * chunk->saved_stride + row * FR_SAVED(gates) + j];
    }
    if (x_begin < x_end)
        accumulate(acc, rows, nb, gates, type, (const real *)a->x + row0 * a->x_stride, distances_of_stride(rows, a->x_stride),
                   &a->weight_ih, block0, x_begin, x_end, chunk, chunked);
    if (kind == FASTRNN_GRU) {
        const bool continues = h_begin > 0, switches = h_begin == 0 && h_end > 0;
        FR_UNROLL
        for (int row = 0; row < rows; row++)
            FR_UNROLL
            for (int b = 0; b < nb; b++) {
                const int at = row * nb + b;
                n_input[at] = continues ? chunk->saved[row * FR_SAVED(gates) + 3] : acc[at * gates + 2];
                if (switches)
                    acc[at * gates + 2] = v_load(bias + b * column_block + 3 * FR_V);
            }
        FR_IN_MEMORY(n_input); /* it is not used while h is multiplied */
    }
    if (!chunked || h_begin < h_end)
        accumulate(acc, rows, nb, gates, type, a->h_in[row0], distances_of(rows, a->h_in + row0), &a->weight_hh, block0,
                   h_begin, h_end, chunk, chunked);
    if (!chunked && rows == 1 && FR_V > 1) { /* the scalar set's code would be much larger */
        FR_UNROLL
        for (int b = 0; b < nb; b++) {
            const vf *g = &acc[b * gates];
            const int64_t unit = a->unit + (block0 + b) * FR_V;
            real *h_out = (real *)a->h_out[row0] + unit;
            if (kind == FASTRNN_LSTM) {
                store_state(h_out, lstm_cell(g, (const real *)a->c_in[row0] + unit, (real *)a->c_out[row0] + unit, NULL, NULL, 0));
            } else if (kind == FASTRNN_GRU) {
                vf h = v_load((const real *)a->h_in[row0] + unit);
                store_state(h_out, gru_cell(v_sigmoid(g[0]), v_sigmoid(g[1]), n_input[b], g[2], h, NULL));
            } else {
                store_state(h_out, a->activation == FASTRNN_RELU ? v_relu(g[0]) : v_tanh(g[0]));
            }
        }
        return;
    }
    vf own[FR_MOST_SAVED];
    vf *saved = chunked ? chunk->saved : own;
    const int64_t saved_stride = chunked ? chunk->saved_stride : rows * FR_SAVED(gates);
    FR_UNROLL
    for (int b = 0; b < nb; b++)
        FR_UNROLL
        for (int row = 0; row < rows; row++) {
            vf *to = &saved[b * saved_stride + row * FR_SAVED(gates)];
            FR_UNROLL
            for (int j = 0; j < gates; j++)
                to[j] = acc[(row * nb + b) * gates + j];
            if (kind == FASTRNN_GRU)
                to[3] = n_input[row * nb + b];
        }
    for (int b = 0; !chunked && b < nb; b++)
        finish(a, row0, block0 + b, rows, &own[b * saved_stride], kind);
}

typedef void fr_tile(const void *args, int64_t row, int64_t block, const fr_chunk *chunk);

/* Indices in a row of the tables, after the tiles of 1, 2, 4 and 8 blocks: chunked tiles of FR_CHUNK_BLOCKS, the first one of rows
 * and the others; one of 3 blocks. */
enum { FR_FIRST_CHUNKED = 4, FR_CHUNKED, FR_THREE_BLOCKS, FR_NUM_SHAPES };

/* Measured on a Zen 3 with AVX2 (32 KiB of L1, 512 KiB of L2) and a Sapphire Rapids with AVX-512 (48 KiB, 2 MiB). */
#define CHUNK_BYTES (16 << 10)    /* as reals */
#define CHUNKED_WEIGHTS (2 << 20) /* bytes of reals from which on chunks are faster */
#define ONE_STREAM_TILES 4        /* of rows: from here on arithmetic takes longer than any stream */
#define GROUP_TILES 12            /* of rows that compute a chunk in turn; if there are more, whole panels are as fast */

/* The two matrices of a step; a product has h only. */
typedef struct fr_operands {
    const fr_weights *x, *h;
    int64_t x_columns, h_columns, column_bytes; /* bytes of a column of a block */
    int gates;
    bool widens;              /* the weights are smaller than reals */
    const fr_step_args *step; /* NULL for a product */
    fastrnn_kind kind;        /* of the step */
} fr_operands;

/* How rows are divided into tiles: the first `longer` of them have one row more than the others. */
typedef struct fr_row_tiles {
    int64_t count, longer;
    int least_rows;
} fr_row_tiles;

static int64_t first_row(fr_row_tiles t, int64_t tile) { return tile * t.least_rows + fr_min(tile, t.longer); }

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

/* All rows of FR_CHUNK_BLOCKS blocks, chunk by chunk. next_block: the first of those that are computed after them. */
static void walk_chunks(fr_tile *const tiles[][FR_NUM_SHAPES], const void *args, const fr_operands *o, fr_row_tiles t, int64_t block,
                        int64_t next_block, int64_t most_columns)
{
    const int64_t columns = o->x_columns + o->h_columns, nb = FR_CHUNK_BLOCKS(o->gates);
    vf saved[GROUP_TILES * FR_MOST_SAVED];
    _Alignas(FR_ALIGNMENT) char widened[CHUNK_BYTES];
    for (int64_t tile0 = 0; tile0 < t.count; tile0 += GROUP_TILES) {
        const int64_t last_tile = fr_min(tile0 + GROUP_TILES, t.count), row0 = first_row(t, tile0);
        const int64_t rows = first_row(t, last_tile) - row0;
        const bool one_stream = nb == 1 && last_tile - tile0 >= ONE_STREAM_TILES;
        const int64_t share = (last_tile - tile0) * (one_stream ? 1 : FR_STREAMS(nb)); /* of a tile, of a stream: 1 / share */
        fr_chunk chunk = {.saved_stride = rows * FR_SAVED(o->gates), .widened = widened,
                          .prefetch_step = nb * o->column_bytes / share};
        for (int64_t begin = 0, end; begin < columns; begin = end) {
            end = next_chunk(o, begin, most_columns, &chunk);
            chunk.weights = weights_at(o, block, begin);
            chunk.stride = weights_at(o, block + 1, begin) - chunk.weights;
            chunk.widened_stride = (end - begin) * o->gates * FR_V * (int64_t)sizeof(real);
            const int64_t column = end < columns ? end : 0; /* the first one of the next chunk */
            const int64_t of_block = end < columns || last_tile < t.count ? block : next_block;
            chunk.prefetch = weights_at(o, of_block, column);
            chunk.stream_stride = nb > 1        ? weights_at(o, of_block + 1, column) - chunk.prefetch
                                  : one_stream ? FR_ALIGNMENT
                                               : (end - begin) * o->column_bytes / 2;
            for (int64_t tile = tile0; tile < last_tile; tile++) {
                const int64_t row = first_row(t, tile);
                chunk.saved = &saved[(row - row0) * FR_SAVED(o->gates)];
                tiles[t.least_rows - (tile >= t.longer)][tile == tile0 ? FR_FIRST_CHUNKED : FR_CHUNKED](args, row, block, &chunk);
                if (o->widens) {
                    chunk.weights = widened;
                    chunk.stride = chunk.widened_stride;
                }
                chunk.prefetch += (end - begin) * chunk.prefetch_step;
            }
        }
        for (int64_t b = 0; o->step && b < nb; b++)
            finish(o->step, row0, block + b, rows, &saved[b * chunk.saved_stride], o->kind);
    }
}

/* Divides rows x blocks into tiles. The outer loop is over blocks, so that a panel is read from memory or an outer cache once
 * for all rows. A single row reads each panel once; its tiles have the fewest blocks that give FR_CHAINS chains, so that
 * the panels of the last tiles are what stays cached. */
static void walk(fr_tile *const tiles[][FR_NUM_SHAPES], const void *args, const fr_operands *o, int64_t rows, int64_t blocks,
                 bool backwards)
{
    if (rows == 0)
        return;
    const int gates = o->gates, chunk_blocks = FR_CHUNK_BLOCKS(gates);
    const int64_t columns = o->x_columns + o->h_columns;
    fr_row_tiles t = {.count = 1, .least_rows = 1};
    int most_rows = 1, nb = FR_MAX_BLOCKS, shape = 3; /* index in a row of `tiles`: log2 of nb, or a name */
    bool chunked = false;
    if (rows > 1) { /* no divisions for one row: a step of a stream may take only 0.1 us */
        const int vectors = o->widens ? gates * chunk_blocks : gates;
        t.count = fr_ceil_div(rows, fr_min(FR_TILE_ROWS, FR_TILE_VECTORS / vectors));
        t.least_rows = (int)(rows / t.count);
        t.longer = rows - t.least_rows * t.count;
        most_rows = t.least_rows + (t.longer > 0);
        chunked = t.count > 1 && (o->widens ? columns > 0
                                            : t.count <= GROUP_TILES && columns * o->column_bytes * blocks >= CHUNKED_WEIGHTS);
    }
    for (int64_t block = 0; block < blocks; block += nb) {
        for (; nb > 1 && (block + nb > blocks || nb * most_rows * gates > FR_TILE_VECTORS || (chunked && nb > chunk_blocks) ||
                          (most_rows == 1 && nb / 2 * gates >= FR_CHAINS)); shape--)
            nb /= 2;
        /* After a tile of two, a last one of a single block would wait for the latency of its gates. */
        if (rows == 1 && nb == 2 && blocks - block == 3 && 3 * gates <= FR_TILE_VECTORS) {
            nb = 3;
            shape = FR_THREE_BLOCKS;
        }
        const int64_t start = backwards ? blocks - block - nb : block;
        if (nb == chunk_blocks && (chunked || (t.count > 2 && o->step && o->kind == FASTRNN_LSTM))) {
            const int64_t next = block + nb == blocks ? start : backwards ? start - nb : start + nb;
            const int64_t most = CHUNK_BYTES / (gates * chunk_blocks * FR_V * (int64_t)sizeof(real));
            walk_chunks(tiles, args, o, t, start, next, chunked ? most : INT32_MAX);
            continue;
        }
        for (int64_t tile = 0; tile < t.count; tile++)
            tiles[t.least_rows - (tile >= t.longer)][shape](args, first_row(t, tile), start, NULL);
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
        const bool fits = FR_TILE_FITS(R, FR_CHUNK_BLOCKS(COLUMNS), COLUMNS);                                         \
        TILE(args, row, block, chunk, true, fits ? (R) : 1, FR_CHUNK_BLOCKS(COLUMNS), __VA_ARGS__);                   \
    }
#define FR_TILE_IF_FITS(NAME, R, N, COLUMNS) FR_TILE_FITS(R, N, COLUMNS) ? NAME##_##R##x##N : NULL
#define FR_TILES(NAME, R, ...)                                                                                      \
    FR_CHUNKED_TILE(NAME, R, __VA_ARGS__)                                                                            \
    FR_TILE(NAME, R, 1, __VA_ARGS__)                                                                                \
    FR_TILE(NAME, R, 2, __VA_ARGS__)                                                                                \
    FR_TILE(NAME, R, 4, __VA_ARGS__)                                                                                \
    FR_TILE(NAME, R, 8, __VA_ARGS__)
#define FR_TILE_ROW(NAME, REST, R, COLUMNS)                                                                               \
    {FR_TILE_IF_FITS(NAME, R, 1, COLUMNS), FR_TILE_IF_FITS(NAME, R, 2, COLUMNS), FR_TILE_IF_FITS(NAME, R, 4, COLUMNS),    \
     FR_TILE_IF_FITS(NAME, R, 8, COLUMNS),                                                                            \
     FR_TILE_FITS(R, FR_CHUNK_BLOCKS(COLUMNS), COLUMNS) ? NAME##_##R##_chunked : NULL,                                \
     FR_TILE_FITS(R, FR_CHUNK_BLOCKS(COLUMNS), COLUMNS) ? REST##_##R##_chunked : NULL,                                \
     (R) == 1 ? FR_TILE_IF_FITS(NAME, 1, 3, COLUMNS) : NULL}
/* REST: the tiles of which those after the first chunked one are. */
#define FR_DEFINE_TILES(NAME, REST, COLUMNS, ...)                                                                     \
    FR_TILE(NAME, 1, 3, COLUMNS, __VA_ARGS__)                                                                         \
    FR_TILES(NAME, 1, COLUMNS, __VA_ARGS__)                                                                           \
    FR_TILES(NAME, 2, COLUMNS, __VA_ARGS__)                                                                           \
    FR_TILES(NAME, 3, COLUMNS, __VA_ARGS__)                                                                           \
    FR_TILES(NAME, 4, COLUMNS, __VA_ARGS__)                                                                           \
    FR_TILES(NAME, 5, COLUMNS, __VA_ARGS__)                                                                           \
    FR_TILES(NAME, 6, COLUMNS, __VA_ARGS__)                                                                           \
    static fr_tile *const NAME##_tiles[6][FR_NUM_SHAPES] = {                                                                    \
        FR_TILE_ROW(NAME, REST, 1, COLUMNS), FR_TILE_ROW(NAME, REST, 2, COLUMNS), FR_TILE_ROW(NAME, REST, 3, COLUMNS),    \
        FR_TILE_ROW(NAME, REST, 4, COLUMNS), FR_TILE_ROW(NAME, REST, 5, COLUMNS), FR_TILE_ROW(NAME, REST, 6, COLUMNS)};

/* The four kernels for weights of one type: product_NAME, lstm_step_NAME, gru_step_NAME, rnn_step_NAME. */
#define FR_DEFINE_KERNELS(NAME, TYPE)                                                                                 \
    FR_DEFINE_TILES(product_1_##NAME, product_1_float32, 1, product_tile, 1, TYPE)                                                       \
    FR_DEFINE_TILES(product_2_##NAME, product_2_float32, 2, product_tile, 2, TYPE)                                                       \
    FR_DEFINE_TILES(product_3_##NAME, product_3_float32, 3, product_tile, 3, TYPE)                                                       \
    FR_DEFINE_TILES(product_4_##NAME, product_4_float32, 4, product_tile, 4, TYPE)                                                       \
    FR_DEFINE_TILES(lstm_##NAME, lstm_float32, 4, step_tile, FASTRNN_LSTM, TYPE)                                                    \
    FR_DEFINE_TILES(gru_##NAME, gru_float32, 3, step_tile, FASTRNN_GRU, TYPE)                                                      \
    FR_DEFINE_TILES(rnn_##NAME, rnn_float32, 1, step_tile, FASTRNN_RNN, TYPE)                                                      \
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
    const fr_operands operands = {.h = &a->weights, .h_columns = a->k, .column_bytes = a->gates * FR_V * fr_weight_size(type),
                                  .gates = a->gates, .widens = type != FR_WEIGHT_FLOAT32};
    walk(tiles, a, &operands, a->rows, a->blocks, false);
}

FR_INLINE void step(fr_tile *const tiles[][FR_NUM_SHAPES], const int gates, const fr_step_args *a, const fastrnn_kind kind,
                    const fr_weight_type type)
{
    const fr_operands operands = {.x = &a->weight_ih, .h = &a->weight_hh, .x_columns = a->x ? a->input_size : 0,
                                  .h_columns = a->h_size, .column_bytes = gates * FR_V * fr_weight_size(type), .gates = gates,
                                  .widens = type != FR_WEIGHT_FLOAT32, .step = a, .kind = kind};
    walk(tiles, a, &operands, a->rows, a->blocks, a->backwards);
}

FR_DEFINE_KERNELS(float32, FR_WEIGHT_FLOAT32)
#ifndef FASTRNN_ONLY_FLOAT32
FR_DEFINE_KERNELS(float16, FR_WEIGHT_FLOAT16)
#endif

#endif
