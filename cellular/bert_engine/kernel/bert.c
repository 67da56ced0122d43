/* The forward pass of BERT over whole texts, one after the other and without padding.

HIDDEN, INNER and HEAD are the model's sizes, multiples of 32. Products are AMX's; all else is float32.
A thread takes some texts through all layers alone, so that what it works on stays in its cache.
*/
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tiles.h"

#define HEADS (HIDDEN / HEAD)
#define LARGE_PAGE (2 << 20)
#define QUERIES 4 /* that share one reading of keys and values */

typedef struct {
    int32_t parts; /* of the weights */
    const Brain *weights;
    const float *bias;
} Linear;

typedef struct {
    const float *scale, *shift;
} Norm;

typedef struct {
    Linear query_key_value, attention_out, up, down;
    Norm attention_norm, norm;
} Layer;

typedef struct {
    int32_t layers;
    float epsilon;
    const float *words, *places; /* [vocabulary][HIDDEN], [positions][HIDDEN] */
    Norm norm;
    const Layer *layer;
} Model;

/* What a thread works on: `rows` tokens, a multiple of BLOCK. */
typedef struct {
    int rows;
    float *x;                /* [rows][HIDDEN], the residual stream */
    Brain *inputs, *inner;   /* of the next product: [rows][HIDDEN] and [rows][SHARE] */
    float *query_key_value;  /* [rows + BLOCK][3 * HIDDEN] */
    float *keys, *scores;    /* of a head: [HEAD][rows], [QUERIES][rows] */
} Work;

typedef enum { KEEP, ADD, GELU } Finish;

INLINE void linear_of(int parts, const Brain *weights, const float *bias, const Brain *inputs, int rows,
                      int columns, int outputs, Finish kind, void *to) {
    _Alignas(64) float blocks[2][BLOCK * BLOCK];
    int lines = parts * BLOCK * BLOCK / rows;
    Waiting waiting = {.to = to, .columns = outputs};
    for (int output = 0; output < outputs; output += BLOCK, weights += parts * BLOCK * columns)
        for (int row = 0; row < rows; row += BLOCK) {
            const Brain *upper = inputs + (long)INPUT_PARTS * row * columns;
            const Brain *lower = upper + INPUT_PARTS * 16 * columns;
            const Brain *soon = weights + parts * BLOCK * columns + (long)row / BLOCK * lines * columns;
            float *place = (float *)to + (long)row * outputs + output;
            float *block = kind == GELU ? blocks[waiting.block == blocks[0]] : place;
            multiply(upper, lower, weights, parts, columns, kind == ADD ? place : bias + output,
                     kind == ADD ? outputs : 0, block, kind == GELU ? BLOCK : outputs, &waiting, soon, lines);
            if (kind == GELU) waiting = (Waiting){BLOCK, block, to, outputs, row, output};
        }
    finish(&waiting, 0, BLOCK);
}

/* inputs [rows][columns] times weights, which begin at output or column `first`, to `to` [rows][outputs]: with the
   bias, or added to what is there, or with the bias and GELU as inputs of another product. */
INLINE void linear(const Linear *with, int first, const Brain *inputs, int rows, int columns, int outputs,
                   Finish kind, void *to) {
    const Brain *weights = with->weights + (long)with->parts * HIDDEN * first;
    const float *bias = with->bias + first;
    if (INPUT_PARTS == 1 && with->parts == 1)
        linear_of(1, weights, bias, inputs, rows, columns, outputs, kind, to);
    else
        linear_of(2, weights, bias, inputs, rows, columns, outputs, kind, to);
}

/* A row of x and `more` normalised, to x and as inputs of the next product. */
static void normalise(const Work *work, int row, const float *more, Norm norm, float epsilon) {
    float *x = work->x + (long)row * HIDDEN;
    Lanes sum = all(0), squares = all(0);
    for (int i = 0; i < HIDDEN; i += LANES) {
        Lanes both = load(x + i) + load(more + i);
        store(x + i, both);
        sum += both;
    }
    Lanes mean = all(_mm512_reduce_add_ps(sum) / HIDDEN);
    for (int i = 0; i < HIDDEN; i += LANES) {
        Lanes from_mean = load(x + i) - mean;
        squares += from_mean * from_mean;
    }
    Lanes scale = 1 / _mm512_sqrt_ps(all(_mm512_reduce_add_ps(squares) / HIDDEN + epsilon));
    for (int i = 0; i < HIDDEN; i += 2 * LANES) {
        Lanes halves[2];
        for (int j = 0; j < 2; j++) {
            int at = i + j * LANES;
            halves[j] = (load(x + at) - mean) * scale * load(norm.scale + at) + load(norm.shift + at);
            store(x + at, halves[j]);
        }
        put(work->inputs, HIDDEN, row, i, halves[0], halves[1]);
    }
}

static void embed(const Model *model, const Work *work, const int32_t *ids, int first, int length) {
    for (int t = 0; t < length; t++) {
        memcpy(work->x + (long)(first + t) * HIDDEN, model->words + (long)ids[t] * HIDDEN, 4 * HIDDEN);
        normalise(work, first + t, model->places + (long)t * HIDDEN, model->norm, model->epsilon);
    }
}

/* Keys of a head as columns: [HEAD][wide]. Rows after the text's are read too, and masked where it matters. */
static void turn_keys(const float *keys, int wide, float *to) {
    for (int t = 0; t < wide; t += LANES)
        for (int i = 0; i < HEAD; i += LANES) {
            Lanes rows[LANES];
#pragma GCC unroll 16
            for (int r = 0; r < LANES; r++) rows[r] = load(keys + (long)(t + r) * 3 * HIDDEN + i);
            transpose(rows);
#pragma GCC unroll 16
            for (int r = 0; r < LANES; r++) store(to + (long)(i + r) * wide + t, rows[r]);
        }
}

/* Scores of QUERIES queries for `panels` times 16 keys. */
INLINE void score(const float *queries, const float *keys, int wide, int panels, float *scores) {
    Lanes sums[QUERIES][2];
    for (int q = 0; q < QUERIES; q++)
        for (int p = 0; p < panels; p++) sums[q][p] = all(0);
    for (int i = 0; i < HEAD; i++)
        for (int p = 0; p < panels; p++) {
            Lanes key = load(keys + (long)i * wide + p * LANES);
            for (int q = 0; q < QUERIES; q++) sums[q][p] += key * queries[(long)q * 3 * HIDDEN + i];
        }
    for (int q = 0; q < QUERIES; q++)
        for (int p = 0; p < panels; p++) store(scores + (long)q * wide + p * LANES, sums[q][p]);
}

/* Scores become weights, not divided by their sum, whose inverse is returned. */
INLINE float soften(float *scores, int length, int wide) {
    Lanes most = all(-1e30f), sum = all(0);
    __mmask16 last = 0xffff >> (wide - length);
    store(scores + wide - LANES, _mm512_mask_mov_ps(all(-1e30f), last, load(scores + wide - LANES)));
    for (int t = 0; t < wide; t += LANES) most = _mm512_max_ps(most, load(scores + t));
    most = all(_mm512_reduce_max_ps(most));
    for (int t = 0; t < wide; t += LANES) {
        Lanes weight = exponential(load(scores + t) - most);
        store(scores + t, weight);
        sum += t + LANES < wide ? weight : _mm512_maskz_mov_ps(last, weight);
    }
    return 1 / _mm512_reduce_add_ps(sum);
}

/* Attention within one text, to the inputs of the next product. */
static void attend(const Work *work, int first, int length) {
    int wide = (length + LANES - 1) / LANES * LANES;
    for (int head = 0; head < HEADS; head++) {
        const float *queries = work->query_key_value + (long)first * 3 * HIDDEN + head * HEAD;
        const float *values = queries + 2 * HIDDEN;
        turn_keys(queries + HIDDEN, wide, work->keys);
        for (int from = 0; from < length; from += QUERIES) {
            const float *some = queries + (long)from * 3 * HIDDEN;
            int t = 0;
            for (; t + 2 * LANES <= wide; t += 2 * LANES) score(some, work->keys + t, wide, 2, work->scores + t);
            if (t < wide) score(some, work->keys + t, wide, 1, work->scores + t);
            float inverse[QUERIES];
            for (int q = 0; q < QUERIES; q++) inverse[q] = soften(work->scores + (long)q * wide, length, wide);
            for (int i = 0; i < HEAD; i += 2 * LANES) {
                Lanes left[QUERIES], right[QUERIES];
                for (int q = 0; q < QUERIES; q++) left[q] = right[q] = all(0);
                for (int key = 0; key < length; key++) {
                    const float *value = values + (long)key * 3 * HIDDEN + i;
                    Lanes a = load(value), b = load(value + LANES);
                    for (int q = 0; q < QUERIES; q++) {
                        Lanes weight = all(work->scores[(long)q * wide + key]);
                        left[q] += a * weight, right[q] += b * weight;
                    }
                }
                for (int q = 0; q < QUERIES && from + q < length; q++)
                    put(work->inputs, HIDDEN, first + from + q, head * HEAD + i, left[q] * inverse[q],
                        right[q] * inverse[q]);
            }
        }
    }
}

static void run_layer(const Model *model, const Layer *layer, const Work *work, const int64_t *starts, long texts,
                      int rows) {
    int tokens = starts[texts] - starts[0];
    linear(&layer->query_key_value, 0, work->inputs, rows, HIDDEN, 3 * HIDDEN, KEEP, work->query_key_value);
    for (long n = 0; n < texts; n++) attend(work, starts[n] - starts[0], starts[n + 1] - starts[n]);
    linear(&layer->attention_out, 0, work->inputs, rows, HIDDEN, HIDDEN, ADD, work->x);
    for (int t = 0; t < tokens; t++)
        normalise(work, t, layer->attention_out.bias, layer->attention_norm, model->epsilon);
    for (int first = 0; first < INNER; first += SHARE) {
        linear(&layer->up, first, work->inputs, rows, HIDDEN, SHARE, GELU, work->inner);
        linear(&layer->down, first, work->inner, rows, SHARE, HIDDEN, ADD, work->x);
    }
    for (int t = 0; t < tokens; t++) normalise(work, t, layer->down.bias, layer->norm, model->epsilon);
}

static void mean(const Work *work, int first, int length, float *vector) {
    for (int i = 0; i < HIDDEN; i += LANES) {
        Lanes sum = all(0);
        for (int t = 0; t < length; t++) sum += load(work->x + (long)(first + t) * HIDDEN + i);
        store(vector + i, sum / (float)length);
    }
}

static void encode(const Model *model, const Work *work, const int32_t *ids, const int64_t *starts, long texts,
                   float *vectors) {
    int rows = (starts[texts] - starts[0] + BLOCK - 1) / BLOCK * BLOCK;
    for (long n = 0; n < texts; n++)
        embed(model, work, ids + starts[n], starts[n] - starts[0], starts[n + 1] - starts[n]);
    for (int i = 0; i < model->layers; i++) run_layer(model, model->layer + i, work, starts, texts, rows);
    for (long n = 0; n < texts; n++)
        mean(work, starts[n] - starts[0], starts[n + 1] - starts[n], vectors + n * HIDDEN);
}

/* Ask Linux for AMX's registers, which a process has not by itself: 0, if it gives them. */
int bert_start(void) {
    return syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18 /* tile data */) ? -1 : 0;
}

/* Take chunks of texts until there is none left: any number of threads call this with the same arguments.

ids: of all texts, text n from starts[n] to starts[n + 1]. bounds: the first text of each chunk, and the end.
rows: the most tokens of a chunk, a multiple of BLOCK. next: the chunk to take, 0 before the first call.
vectors: [texts][HIDDEN]. Gives -1 where there is no memory. */
int bert_encode(const Model *model, const int32_t *ids, const int64_t *starts, const int64_t *bounds, long chunks,
                int rows, long *next, float *vectors) {
    long counts[] = {HIDDEN, INPUT_PARTS * HIDDEN / 2, INPUT_PARTS * SHARE / 2, 3 * HIDDEN, HEAD, QUERIES}; /* floats a row */
    float *parts[6];
    long total = 0;
    for (int i = 0; i < 6; i++) total += counts[i] * (rows + BLOCK);
    size_t bytes = (total * sizeof(float) + LARGE_PAGE - 1) / LARGE_PAGE * LARGE_PAGE;
    float *memory = aligned_alloc(LARGE_PAGE, bytes);
    if (!memory) return -1;
    madvise(memory, bytes, MADV_HUGEPAGE);
    memset(memory, 0, bytes); /* rows of no token are computed as well, and shall be numbers */
    parts[0] = memory;
    for (int i = 1; i < 6; i++) parts[i] = parts[i - 1] + counts[i - 1] * (rows + BLOCK);
    Work work = {rows, parts[0], (Brain *)parts[1], (Brain *)parts[2], parts[3], parts[4], parts[5]};
    start_tiles();
    for (long chunk; (chunk = __atomic_fetch_add(next, 1, __ATOMIC_RELAXED)) < chunks;)
        encode(model, &work, ids, starts + bounds[chunk], bounds[chunk + 1] - bounds[chunk],
               vectors + bounds[chunk] * HIDDEN);
    _tile_release();
    free(memory);
    return 0;
}
