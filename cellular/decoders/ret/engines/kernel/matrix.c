#include "matrix.h"

#include "dot.h"

#define TOGETHER 4 /* rows of inputs that share one reading of the weights */
#define MOST_PANELS (LANES == 16 ? 4 : 8)
#define FEW_PANELS (LANES == 16 ? 4 : 2)

/* Inputs rounded to (code + zero) * scale, each row by its peak. */
typedef struct {
    int32_t zero;
    int8_t codes[MOST_ROWS][INNER];
    int32_t sums[MOST_ROWS][INNER / 8]; /* of each group's codes */
    float scales[MOST_ROWS];
} Inputs;

static float peak(const float *x, int count) {
    Lanes most = {0};
    for (int i = 0; i < count; i += LANES) most = larger(most, (Lanes)((IntLanes)load(x + i) & 0x7fffffff));
    return largest(most);
}

static void round_inputs(const Matrix *matrix, const float *x, Inputs *inputs, int row) {
    int columns = matrix->columns, group = matrix->group;
    int8_t *codes = inputs->codes[row];
    int32_t *sums = inputs->sums[row];
    float most = peak(x, columns);
    float steps = matrix->positive ? 255 : 127, inverse = most > 0 ? steps / most : 0;
    inputs->scales[row] = most / steps;
    for (int start = 0; start < columns; start += group) {
        IntLanes total = {0};
        for (int i = start; i < start + group; i += LANES) {
            IntLanes rounded = (IntLanes)(load(x + i) * inverse + ROUNDING) - (IntLanes)all(ROUNDING);
            rounded -= inputs->zero;
            ByteLanes narrow = __builtin_convertvector(rounded, ByteLanes);
            memcpy(codes + i, &narrow, sizeof narrow);
            total += rounded;
        }
        sums[start / group] = sum_integers(total);
    }
}

/* LANES * panels outputs from `row` on, for `count` inputs. Constant arguments make each use its own loop. */
INLINE void multiply_codes(const Matrix *matrix, int row, int panels, const Inputs *inputs, int first,
                           int count, int bits, float *outputs) {
    int columns = matrix->columns, group = matrix->group, groups = columns / group;
    int block = row / BLOCK, inside = row % BLOCK, middle = bits == 8 ? 128 : 8;
    const uint8_t *weights = matrix->weights;
    weights += (long)block * BLOCK * columns * bits / 8 + 4 * inside;
    const float *scales = matrix->scales + (long)block * BLOCK * groups + inside;
    Lanes totals[TOGETHER][MOST_PANELS];
    for (int r = 0; r < count; r++)
        for (int p = 0; p < panels; p++)
            totals[r][p] = load(matrix->sums + row + LANES * p) * (float)inputs->zero;
    for (int g = 0; g < groups; g++, scales += BLOCK) {
        Sums sums[TOGETHER][MOST_PANELS];
        for (int r = 0; r < count; r++)
            for (int p = 0; p < panels; p++) sums[r][p] = sums_of(-middle * inputs->sums[first + r][g]);
#pragma GCC unroll 4
        for (int column = g * group; column < (g + 1) * group; column += 32 / bits, weights += 4 * BLOCK)
            for (int p = 0; p < panels; p++) {
                Codes codes = load_codes(weights + 4 * LANES * p);
                for (int r = 0; r < count; r++) {
                    const int8_t *x = inputs->codes[first + r] + column;
                    Codes low = bits == 8 ? codes : low_nibbles(codes);
                    sums[r][p] = add_products(sums[r][p], low, load_quad(x));
                    if (bits == 8) continue;
                    sums[r][p] = add_products(sums[r][p], high_nibbles(codes), load_quad(x + 4));
                }
            }
        for (int r = 0; r < count; r++)
            for (int p = 0; p < panels; p++) totals[r][p] += to_lanes(sums[r][p]) * load(scales + LANES * p);
    }
    for (int r = 0; r < count; r++)
        for (int p = 0; p < panels; p++)
            store(outputs + r * matrix->rows + row + LANES * p, totals[r][p] * inputs->scales[first + r]);
}

INLINE void multiply_floats(const Matrix *matrix, int row, int panels, const float *inputs, int count,
                            float *outputs) {
    int columns = matrix->columns, block = row / BLOCK, inside = row % BLOCK;
    const float *weights = (const float *)matrix->weights + (long)block * BLOCK * columns + inside;
    Lanes totals[TOGETHER][MOST_PANELS] = {0};
    for (int column = 0; column < columns; column++, weights += BLOCK)
        for (int p = 0; p < panels; p++) {
            Lanes weight = load(weights + LANES * p);
            for (int r = 0; r < count; r++) totals[r][p] += weight * inputs[r * columns + column];
        }
    for (int r = 0; r < count; r++)
        for (int p = 0; p < panels; p++) store(outputs + r * matrix->rows + row + LANES * p, totals[r][p]);
}

/* One row of inputs goes with many panels, several rows with few: the sums must fit the registers. */
#define FOR_COUNT(count, CALL)                                        \
    switch (count) {                                                  \
        case 1: EACH_PANELS(CALL, 1, MOST_PANELS); break;             \
        case 2: EACH_PANELS(CALL, 2, FEW_PANELS); break;              \
        case 3: EACH_PANELS(CALL, 3, FEW_PANELS); break;              \
        default: EACH_PANELS(CALL, 4, FEW_PANELS);                    \
    }
#define EACH_PANELS(CALL, count, panels) \
    for (int row = start; row < start + BLOCK; row += LANES * (panels)) CALL(count, panels)

#define FLOATS(count, panels) multiply_floats(matrix, row, panels, inputs + first * matrix->columns, count, y)
#define BYTES(count, panels) multiply_codes(matrix, row, panels, &rounded, first, count, 8, y)
#define NIBBLES(count, panels) multiply_codes(matrix, row, panels, &rounded, first, count, 4, y)

void multiply(const Matrix *matrix, int count, const float *inputs, float *outputs) {
    Inputs rounded;
    rounded.zero = matrix->positive ? 128 : 0;
    for (int r = 0; r < count && matrix->bits < 32; r++)
        round_inputs(matrix, inputs + r * matrix->columns, &rounded, r);
    for (int start = 0; start < matrix->rows; start += BLOCK)
        for (int first = 0; first < count; first += TOGETHER) {
            float *y = outputs + first * matrix->rows;
            if (matrix->bits == 32) FOR_COUNT(count - first, FLOATS)
            else if (matrix->bits == 8) FOR_COUNT(count - first, BYTES)
            else FOR_COUNT(count - first, NIBBLES)
        }
}
