/* Matrix products with prepacked weights, and whole steps, which keep products, gates and new states in registers.
 *
 * A tile is a few rows times a few blocks of units. Its accumulators stay in registers for all of k. The shape of a tile
 * does not change the chain of multiply-adds of an element, so it may differ from call to call. `rows`, `nb` and `gates` are
 * constants wherever these functions are inlined.
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

/* acc[rows][nb][gates] += in . weights, from block0 on. Whichever are fewer, a column's inputs or its weights, are held in
 * registers while the others are loaded one after the other: with 12 accumulators in 16 registers, four are left. */
FR_INLINE void accumulate(vf *restrict acc, const int rows, const int nb, const int gates, const real *in,
                          int64_t in_stride, const fr_weights *weights, int64_t block0, int64_t k)
{
    const weight *panels = w_panel(weights, block0);
    const int64_t stride = w_stride(weights);
    const bool hold_inputs = rows <= nb * gates;
    const int num_held = hold_inputs ? rows : nb * gates, num_passing = hold_inputs ? nb * gates : rows;
    for (int64_t i = 0; i < k; i++) {
#define FR_INPUT(row) v_broadcast(in + (row) * in_stride + i)
#define FR_WEIGHT(n) w_load(panels + (n) / gates * stride + (i * gates + (n) % gates) * FR_V)
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
}

FR_INLINE void product_tile(const fr_product_args *a, int64_t row0, int64_t block0, const int rows, const int nb, const int gates)
{
    vf acc[FR_TILE_VECTORS];
    real *out = (real *)a->out + row0 * a->out_row_stride + block0 * a->out_block_stride;
    const real *bias = a->bias ? (const real *)a->bias + block0 * a->out_block_stride : NULL;
    FR_UNROLL
    for (int row = 0; row < rows; row++)
        FR_UNROLL
        for (int b = 0; b < nb; b++)
            FR_UNROLL
            for (int j = 0; j < gates; j++) {
                int64_t at = b * a->out_block_stride + j * a->out_gate_stride;
                acc[(row * nb + b) * gates + j] = v_load(bias ? bias + at : out + row * a->out_row_stride + at);
            }
    accumulate(acc, rows, nb, gates, (const real *)a->in + row0 * a->in_stride, a->in_stride,
               &a->weights, block0, a->k);
    FR_UNROLL
    for (int row = 0; row < rows; row++)
        FR_UNROLL
        for (int b = 0; b < nb; b++)
            FR_UNROLL
            for (int j = 0; j < gates; j++)
                v_store(out + row * a->out_row_stride + b * a->out_block_stride + j * a->out_gate_stride,
                        acc[(row * nb + b) * gates + j]);
}

FR_INLINE void step_tile(const fr_step_args *a, int64_t row0, int64_t block0, const int rows, const int nb,
                         const fastrnn_kind kind)
{
    const int gates = kind == FASTRNN_LSTM ? 4 : kind == FASTRNN_GRU ? 3 : 1;
    const int64_t column_block = (kind == FASTRNN_GRU ? 4 : gates) * FR_V;
    vf acc[FR_TILE_VECTORS];
    const real *bias = (const real *)a->bias + block0 * column_block;
    const real *pre = a->x ? bias : (const real *)a->pre + row0 * a->pre_stride + block0 * column_block;
    const int64_t pre_stride = a->x ? 0 : a->pre_stride;
    FR_UNROLL
    for (int row = 0; row < rows; row++)
        FR_UNROLL
        for (int b = 0; b < nb; b++)
            FR_UNROLL
            for (int j = 0; j < gates; j++)
                acc[(row * nb + b) * gates + j] = v_load(pre + row * pre_stride + b * column_block + j * FR_V);
    if (a->x)
        accumulate(acc, rows, nb, gates, (const real *)a->x + row0 * a->x_stride, a->x_stride,
                   &a->weight_ih, block0, a->input_size);
    vf n_input[FR_TILE_VECTORS / 3]; /* GRU: moved here so that the accumulators hold n_hidden */
    if (kind == FASTRNN_GRU) {
        FR_UNROLL
        for (int row = 0; row < rows; row++)
            FR_UNROLL
            for (int b = 0; b < nb; b++) {
                n_input[row * nb + b] = acc[(row * nb + b) * gates + 2];
                acc[(row * nb + b) * gates + 2] = v_load(bias + b * column_block + 3 * FR_V);
            }
        FR_IN_MEMORY(n_input); /* it is not used while h is multiplied */
    }
    accumulate(acc, rows, nb, gates, (const real *)a->h_in + row0 * a->h_in_stride, a->h_in_stride,
               &a->weight_hh, block0, a->h_size);
    FR_UNROLL
    for (int row = 0; row < rows; row++)
        FR_UNROLL
        for (int b = 0; b < nb; b++) {
            const vf *g = &acc[(row * nb + b) * gates];
            const int64_t unit = (block0 + b) * FR_V;
            real *h_out = (real *)a->h_out + (row0 + row) * a->h_out_stride + unit;
            if (kind == FASTRNN_LSTM) {
                real *c = (real *)a->c + (row0 + row) * a->c_stride + unit;
                store_state(h_out, lstm_cell(g, c, NULL, NULL, 0));
            } else if (kind == FASTRNN_GRU) {
                vf h = v_load((const real *)a->h_old + (row0 + row) * a->h_in_stride + unit);
                store_state(h_out, gru_cell(v_sigmoid(g[0]), v_sigmoid(g[1]), n_input[row * nb + b], g[2], h, NULL));
            } else {
                store_state(h_out, a->activation == FASTRNN_RELU ? v_relu(g[0]) : v_tanh(g[0]));
            }
        }
}

typedef void fr_tile(const void *args, int64_t row, int64_t block);

/* Divides rows x blocks into tiles. The outer loop is over blocks, so that a panel is read from memory or an outer cache once
 * for all rows. A single row reads each panel once; its tiles have the fewest blocks that give FR_CHAINS chains, so that
 * the panels of the last tiles are what stays cached. */
static void walk(fr_tile *const tiles[][5], int columns, const void *args, int64_t rows, int64_t blocks, bool backwards)
{
    if (rows == 0)
        return;
    /* No divisions for one row: a step of a stream may take only 0.1 us. */
    const int64_t num_tiles = rows == 1 ? 1 : fr_ceil_div(rows, fr_min(FR_TILE_ROWS, FR_TILE_VECTORS / columns));
    const int least_rows = rows == 1 ? 1 : (int)(rows / num_tiles), longer_tiles = (int)(rows - least_rows * num_tiles);
    const int most_rows = least_rows + (longer_tiles > 0);
    int nb = FR_MAX_BLOCKS, shape = 3; /* shape: the column of `tiles`, log2 of nb, or 4 for 3 blocks */
    for (int64_t block = 0; block < blocks; block += nb) {
        for (; nb > 1 && (block + nb > blocks || nb * most_rows * columns > FR_TILE_VECTORS ||
                          (most_rows == 1 && nb / 2 * columns >= FR_CHAINS)); shape--)
            nb /= 2;
        /* Not a last tile of one block: nothing would hide the latency of its gates. */
        if (rows == 1 && nb == 2 && blocks - block == 3 && 3 * columns <= FR_TILE_VECTORS) {
            nb = 3;
            shape = 4;
        }
        const int64_t start = backwards ? blocks - block - nb : block;
        int64_t row = 0;
        for (int64_t tile = 0; tile < num_tiles; tile++) {
            const int tile_rows = tile < longer_tiles ? most_rows : least_rows;
            tiles[tile_rows - 1][shape](args, row, start);
            row += tile_rows;
        }
    }
}

/* Each shape of a tile is a function that is not inlined in walk(): otherwise the compiler would keep the constants of the
 * gate arithmetic in registers across tiles, and accumulators in memory. */
#define FR_TILE_FITS(R, N, COLUMNS) ((R) <= FR_TILE_ROWS && (R) * (N) * (COLUMNS) <= FR_TILE_VECTORS)
#define FR_TILE(NAME, R, N, COLUMNS, TILE, ...)                                                                       \
    static __attribute__((noinline)) void NAME##_##R##x##N(const void *args, int64_t row, int64_t block)            \
    {                                                                                                               \
        const bool fits = FR_TILE_FITS(R, N, COLUMNS);                                                                \
        TILE(args, row, block, fits ? (R) : 1, fits ? (N) : 1, __VA_ARGS__);                                        \
    }
#define FR_TILE_IF_FITS(NAME, R, N, COLUMNS) FR_TILE_FITS(R, N, COLUMNS) ? NAME##_##R##x##N : NULL
#define FR_TILES(NAME, R, ...)                                                                                      \
    FR_TILE(NAME, R, 1, __VA_ARGS__)                                                                                \
    FR_TILE(NAME, R, 2, __VA_ARGS__)                                                                                \
    FR_TILE(NAME, R, 4, __VA_ARGS__)                                                                                \
    FR_TILE(NAME, R, 8, __VA_ARGS__)
#define FR_TILE_ROW(NAME, R, COLUMNS)                                                                                 \
    {FR_TILE_IF_FITS(NAME, R, 1, COLUMNS), FR_TILE_IF_FITS(NAME, R, 2, COLUMNS), FR_TILE_IF_FITS(NAME, R, 4, COLUMNS),    \
     FR_TILE_IF_FITS(NAME, R, 8, COLUMNS), (R) == 1 ? FR_TILE_IF_FITS(NAME, 1, 3, COLUMNS) : NULL}
#define FR_DEFINE_TILES(NAME, COLUMNS, ...)                                                                           \
    FR_TILE(NAME, 1, 3, COLUMNS, __VA_ARGS__)                                                                         \
    FR_TILES(NAME, 1, COLUMNS, __VA_ARGS__)                                                                           \
    FR_TILES(NAME, 2, COLUMNS, __VA_ARGS__)                                                                           \
    FR_TILES(NAME, 3, COLUMNS, __VA_ARGS__)                                                                           \
    FR_TILES(NAME, 4, COLUMNS, __VA_ARGS__)                                                                           \
    FR_TILES(NAME, 5, COLUMNS, __VA_ARGS__)                                                                           \
    FR_TILES(NAME, 6, COLUMNS, __VA_ARGS__)                                                                           \
    static fr_tile *const NAME##_tiles[6][5] = {                                                                    \
        FR_TILE_ROW(NAME, 1, COLUMNS), FR_TILE_ROW(NAME, 2, COLUMNS), FR_TILE_ROW(NAME, 3, COLUMNS),                      \
        FR_TILE_ROW(NAME, 4, COLUMNS), FR_TILE_ROW(NAME, 5, COLUMNS), FR_TILE_ROW(NAME, 6, COLUMNS)};

FR_DEFINE_TILES(product_1, 1, product_tile, 1)
FR_DEFINE_TILES(product_2, 2, product_tile, 2)
FR_DEFINE_TILES(product_3, 3, product_tile, 3)
FR_DEFINE_TILES(product_4, 4, product_tile, 4)
FR_DEFINE_TILES(lstm, 4, step_tile, FASTRNN_LSTM)
FR_DEFINE_TILES(gru, 3, step_tile, FASTRNN_GRU)
FR_DEFINE_TILES(rnn, 1, step_tile, FASTRNN_RNN)

static void product(const fr_product_args *a)
{
    static fr_tile *const (*const by_gates[])[5] = {product_1_tiles, product_2_tiles, product_3_tiles, product_4_tiles};
    walk(by_gates[a->gates - 1], a->gates, a, a->rows, a->blocks, false);
}

static void lstm_step(const fr_step_args *a) { walk(lstm_tiles, 4, a, a->rows, a->blocks, a->backwards); }
static void gru_step(const fr_step_args *a) { walk(gru_tiles, 3, a, a->rows, a->blocks, a->backwards); }
static void rnn_step(const fr_step_args *a) { walk(rnn_tiles, 1, a, a->rows, a->blocks, a->backwards); }

#endif
