/* Products of a matrix with several rows of inputs. */
#ifndef MATRIX_H
#define MATRIX_H

#include <stdint.h>

#define MOST_ROWS 8  /* that are worked on together */
#define BLOCK 64     /* rows of a matrix that stand side by side in memory */

/* Weights in blocks of 64 rows, column by column as the products take them:
     32 bits  float [block][column][64]
      8 bits  code + 128 [block][column / 4][64][4]
      4 bits  code + 8 [block][column / 8][64][4], columns 0-3 in the low half of a byte, 4-7 in the high half
   with scales [block][group][64]. Rows are a multiple of 64, a group is a multiple of 16 columns. */
typedef struct {
    int32_t rows, columns, bits, group;
    int32_t positive; /* inputs are never negative: they take all 256 steps */
    const void *weights;
    const float *scales, *sums; /* sums of each row's weights */
} Matrix;

/* outputs (count, rows) = inputs (count, columns) times the matrix, transposed; count <= MOST_ROWS. */
void multiply(const Matrix *matrix, int count, const float *inputs, float *outputs);

#endif
