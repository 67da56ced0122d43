/* Products of matrices by AMX.

A tile has 16 rows of 32 numbers in bfloat16. Inputs are kept tile after tile, [row / 16][column / 32][part],
and weights as AMX reads them: [output / 32][input / 32][part][2], each tile 16 pairs of inputs by 16 outputs.

Inputs have INPUT_PARTS parts and weights 1 or 2. Two parts are a number's sum of two in bfloat16, of which the
second is what rounding took from the first. The product of both second parts is below what fp32 keeps, and left out.
*/
#pragma once
#include "lanes.h"

#define TILE 512 /* numbers of a tile */
#define BLOCK 32 /* rows and columns of what is computed at once: two tiles by two, four sums in registers */

typedef uint16_t Brain; /* bfloat16 */

INLINE void start_tiles(void) {
    struct {
        uint8_t palette, start, zeros[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } config = {.palette = 1};
    for (int i = 0; i < 8; i++) config.bytes[i] = 64, config.rows[i] = 16;
    _tile_loadconfig(&config);
}

/* 32 numbers of a row, as the inputs of a product that has `columns` of them. */
INLINE void put(Brain *tiles, int columns, int row, int column, Lanes left, Lanes right) {
    Brain *to = tiles + INPUT_PARTS * TILE * (long)(row / 16 * (columns / 32) + column / 32) + row % 16 * 32;
    __m512i rounded = (__m512i)_mm512_cvtne2ps_pbh(right, left);
    _mm512_store_si512(to, rounded);
    if (INPUT_PARTS == 1) return;
    left -= (Lanes)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_castsi512_si256(rounded)), 16);
    right -= (Lanes)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(rounded, 1)), 16);
    _mm512_store_si512(to + TILE, (__m512i)_mm512_cvtne2ps_pbh(right, left));
}

INLINE void load_inputs(const Brain *upper, const Brain *lower) {
    _tile_loadd(4, upper, 64);
    _tile_loadd(5, lower, 64);
}

INLINE void load_weights(const Brain *weights) {
    _tile_loadd(6, weights, 64);
    _tile_loadd(7, weights + TILE, 64);
}

INLINE void multiply_tiles(void) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
}

/* A block of sums that is to become the inputs of another product. */
typedef struct {
    int rows; /* BLOCK, or 0 where there is none */
    const float *block;
    Brain *to;
    int columns, row, column;
} Waiting;

INLINE void finish(const Waiting *waiting, int from, int count) {
    for (int r = from; r < from + count && r < waiting->rows; r++)
        put(waiting->to, waiting->columns, waiting->row + r, waiting->column,
            gelu(load(waiting->block + r * BLOCK)), gelu(load(waiting->block + r * BLOCK + LANES)));
}

/* A block of sums to `to`, begun with what is at `from`; strides are in floats.

Meanwhile, since AMX leaves the core's other units free: `waiting` is finished, and the weights at `soon` are
fetched, `lines` cache lines for every column of tiles. */
INLINE void multiply(const Brain *upper, const Brain *lower, const Brain *weights, int parts, int columns,
                     const float *from, long from_stride, float *to, long to_stride, const Waiting *waiting,
                     const Brain *soon, int lines) {
    __asm__ volatile("" ::: "memory"); /* what tiles read has been written: compilers do not know that they read */
    _tile_loadd(0, from, 4 * from_stride);
    _tile_loadd(1, from + 16, 4 * from_stride);
    _tile_loadd(2, from + 16 * from_stride, 4 * from_stride);
    _tile_loadd(3, from + 16 * from_stride + 16, 4 * from_stride);
    int at_once = (BLOCK * 32 + columns - 1) / columns;
    for (int column = 0, row = 0; column < columns; column += 32, row += at_once) {
        load_weights(weights);
        if (INPUT_PARTS == 2) {
            load_inputs(upper + TILE, lower + TILE);
            multiply_tiles();
        }
        load_inputs(upper, lower);
        multiply_tiles();
        if (parts == 2) {
            load_weights(weights + 2 * TILE);
            multiply_tiles();
        }
        finish(waiting, row, at_once);
        for (int i = 0; i < lines; i++) _mm_prefetch(soon + 32 * i, _MM_HINT_T1);
        upper += INPUT_PARTS * TILE, lower += INPUT_PARTS * TILE, weights += 2 * parts * TILE, soon += 32 * lines;
    }
    _tile_stored(0, to, 4 * to_stride);
    _tile_stored(1, to + 16, 4 * to_stride);
    _tile_stored(2, to + 16 * to_stride, 4 * to_stride);
    _tile_stored(3, to + 16 * to_stride + 16, 4 * to_stride);
}
