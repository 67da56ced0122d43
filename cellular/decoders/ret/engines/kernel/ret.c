/* Greedy decoding and single steps of RET. Shapes as in model.py: D hidden, T positions, K of a head. */
#include <math.h>

#include "dot.h"
#include "matrix.h"

#define WIDTH (HIDDEN / HEADS)
#define EPSILON 1e-6f

typedef struct {
    int32_t applications, prefixes;
    int32_t halves; /* caches are float16, not float32 */
    Matrix query_key_value, attention_out, mlp_in, mlp_out, head;
    const float *input_norm, *attention_norm, *mlp_norm, *output_norm; /* (D,) each */
    const float *steps;                                                /* (applications, D) */
    const float *bias;                                                 /* (VOCABULARY,) */
    const float *pieces;                                               /* (VOCABULARY, D) */
} Model;

/* Cosines and sines, (T, K / 2) each. */
typedef struct {
    const float *cosine, *sine;
} Rotary;

/* A text being written: keys and values (applications, 2, T, D), and where the next go. */
typedef struct {
    char *cache;
    int position;
} Text;

INLINE Lanes load_cached(const void *cache, long at, int halves) {
    return halves ? load_half((const uint16_t *)cache + at) : load((const float *)cache + at);
}

INLINE void store_cached(void *cache, long at, const float *x, int halves) {
    for (int i = 0; i < HIDDEN; i += LANES)
        if (halves) store_half((uint16_t *)cache + at + i, load(x + i));
        else store((float *)cache + at + i, load(x + i));
}

/* Root mean square one, over `count` numbers. */
INLINE float inverse_size(const float *x, int count) {
    Lanes squares = {0};
    for (int i = 0; i < count; i += LANES) squares += load(x + i) * load(x + i);
    return 1 / sqrtf(sum(squares) / count + EPSILON);
}

static void normalise(const float *x, const float *gain, float *y) {
    float scale = inverse_size(x, HIDDEN);
    for (int i = 0; i < HIDDEN; i += LANES) store(y + i, load(x + i) * scale * load(gain + i));
}

static void add(const float *x, float *y) {
    for (int i = 0; i < HIDDEN; i += LANES) store(y + i, load(y + i) + load(x + i));
}

/* Normalise the heads of a query or key, turn them by their position, and scale them. */
static void rotate(const float *x, Rotary rotary, int position, float scale, float *y) {
    const float *cosine = rotary.cosine + position * WIDTH / 2, *sine = rotary.sine + position * WIDTH / 2;
    for (int head = 0; head < HEADS; head++, x += WIDTH, y += WIDTH) {
        float size = scale * inverse_size(x, WIDTH);
        for (int i = 0; i < WIDTH / 2; i += LANES) {
            Lanes low = load(x + i) * size, high = load(x + i + WIDTH / 2) * size;
            store(y + i, low * load(cosine + i) - high * load(sine + i));
            store(y + i + WIDTH / 2, high * load(cosine + i) + low * load(sine + i));
        }
    }
}

/* e^x over its sum, in place; x has room for whole lanes. */
static void softmax(float *x, int count) {
    for (int i = count; i % LANES; i++) x[i] = -INFINITY;
    Lanes peaks = load(x), total = {0};
    for (int i = LANES; i < count; i += LANES) peaks = larger(peaks, load(x + i));
    float most = largest(peaks);
    for (int i = 0; i < count; i += LANES) {
        Lanes y = exponential(load(x + i) - most);
        store(x + i, y);
        total += y;
    }
    float inverse = 1 / sum(total);
    for (int i = 0; i < count; i += LANES) store(x + i, load(x + i) * inverse);
}

/* What one head reads from so many positions, whose keys and values begin at those places of the cache. */
INLINE void attend(const float *query, const void *cache, long keys, long values, int positions, int halves,
                   float *y) {
    float weights[positions + LANES];
    for (int t = 0; t < positions; t++, keys += HIDDEN) {
        Lanes products = {0};
        for (int i = 0; i < WIDTH; i += LANES)
            products += load(query + i) * load_cached(cache, keys + i, halves);
        weights[t] = sum(products);
    }
    softmax(weights, positions);
    Lanes read[WIDTH / LANES] = {0};
    for (int t = 0; t < positions; t++, values += HIDDEN)
        for (int i = 0; i < WIDTH / LANES; i++)
            read[i] += weights[t] * load_cached(cache, values + i * LANES, halves);
    for (int i = 0; i < WIDTH / LANES; i++) store(y + i * LANES, read[i]);
}

/* Write a position's key and value to the cache, and what its heads read to y (D,). */
INLINE void attention(const float *projected, Rotary rotary, const Text *text, long keys, long values,
                      int halves, float *y) {
    int position = text->position;
    float query[HIDDEN], key[HIDDEN];
    rotate(projected, rotary, position, 1 / sqrtf(WIDTH), query);
    rotate(projected + HIDDEN, rotary, position, 1, key);
    store_cached(text->cache, keys + position * HIDDEN, key, halves);
    store_cached(text->cache, values + position * HIDDEN, projected + 2 * HIDDEN, halves);
    for (int at = 0; at < HIDDEN; at += WIDTH)
        attend(query + at, text->cache, keys + at, values + at, position + 1, halves, y + at);
}

static void mlp(const Model *model, int count, float (*x)[HIDDEN]) {
    float normed[MOST_ROWS][HIDDEN], inner[MOST_ROWS][INNER];
    for (int r = 0; r < count; r++) normalise(x[r], model->mlp_norm, normed[r]);
    multiply(&model->mlp_in, count, normed[0], inner[0]);
    for (int r = 0; r < count; r++)
        for (int i = 0; i < INNER; i++) inner[r][i] = inner[r][i] > 0 ? inner[r][i] * inner[r][i] : 0;
    multiply(&model->mlp_out, count, inner[0], normed[0]);
    for (int r = 0; r < count; r++) add(normed[r], x[r]);
}

/* One position of `count` texts through all applications. `length`: T of the caches. */
static void advance(const Model *model, Rotary rotary, int length, int count, const Text *texts,
                    float (*x)[HIDDEN], float *logits) {
    float normed[MOST_ROWS][HIDDEN], projected[MOST_ROWS][3 * HIDDEN];
    for (int r = 0; r < count; r++) normalise(x[r], model->input_norm, x[r]);
    for (long a = 0; a < model->applications; a++) {
        for (int r = 0; r < count; r++) add(model->steps + a * HIDDEN, x[r]);
        for (int r = 0; r < count; r++) normalise(x[r], model->attention_norm, normed[r]);
        multiply(&model->query_key_value, count, normed[0], projected[0]);
        for (int r = 0; r < count; r++) {
            long keys = 2 * a * length * HIDDEN, values = keys + length * HIDDEN;
            if (model->halves)
                attention(projected[r], rotary, &texts[r], keys, values, 1, normed[r]);
            else
                attention(projected[r], rotary, &texts[r], keys, values, 0, normed[r]);
        }
        float answers[MOST_ROWS][HIDDEN];
        multiply(&model->attention_out, count, normed[0], answers[0]);
        for (int r = 0; r < count; r++) add(answers[r], x[r]);
        mlp(model, count, x);
    }
    for (int r = 0; r < count; r++) normalise(x[r], model->output_norm, normed[r]);
    multiply(&model->head, count, normed[0], logits);
    for (int r = 0; r < count; r++, logits += VOCABULARY)
        for (int i = 0; i < VOCABULARY; i++) logits[i] += model->bias[i];
}

static long cache_size(const Model *model, int length) {
    return 2l * model->applications * length * HIDDEN * (model->halves ? 2 : 4);
}

/* One position of each text: inputs (texts, D) before their norm, caches (texts, applications, 2, T, D). */
void ret_step(const Model *model, Rotary rotary, int texts, int length, int position, char *caches,
              const float *inputs, float *logits) {
    long size = cache_size(model, length);
    for (int first = 0; first < texts; first += MOST_ROWS) {
        int count = texts - first < MOST_ROWS ? texts - first : MOST_ROWS;
        Text rows[MOST_ROWS];
        float x[MOST_ROWS][HIDDEN];
        for (int r = 0; r < count; r++) rows[r] = (Text){caches + (first + r) * size, position};
        memcpy(x, inputs + (long)first * HIDDEN, count * sizeof *x);
        advance(model, rotary, length, count, rows, x, logits + (long)first * VOCABULARY);
    }
}

static int likeliest(const float *logits) {
    int best = 0;
    for (int i = 1; i < VOCABULARY; i++)
        if (logits[i] > logits[best]) best = i;
    return best;
}

/* Greedy texts: ids (texts, most) and lengths, from prefix states (texts, prefixes, D) and what is added to
   each piece, (texts, D). `slots` caches are in use at once; a text that ends leaves its own to the next. */
void ret_greedy(const Model *model, Rotary rotary, int texts, int most, int slots, char *caches,
                const float *prefix, const float *offsets, uint8_t *ids, int64_t *lengths) {
    int length = model->prefixes + most, count = 0, next = 0;
    Text rows[MOST_ROWS];
    int numbers[MOST_ROWS];
    float x[MOST_ROWS][HIDDEN], logits[MOST_ROWS][VOCABULARY];
    for (; count < slots && next < texts; count++, next++) {
        rows[count] = (Text){caches + count * cache_size(model, length), 0};
        numbers[count] = next;
    }
    while (count) {
        for (int r = 0; r < count; r++) {
            long number = numbers[r], place = rows[r].position - model->prefixes;
            if (place < 0) {
                memcpy(x[r], prefix + (number * model->prefixes + rows[r].position) * HIDDEN, sizeof *x);
            } else {
                memcpy(x[r], model->pieces + ids[number * most + place] * HIDDEN, sizeof *x);
                add(offsets + number * HIDDEN, x[r]);
            }
        }
        advance(model, rotary, length, count, rows, x, logits[0]);
        for (int r = count - 1; r >= 0; r--) {
            int place = ++rows[r].position - model->prefixes;
            if (place < 0) continue;
            int piece = likeliest(logits[r]);
            if (piece) ids[(long)numbers[r] * most + place] = piece;
            if (piece && place + 1 < most) continue;
            lengths[numbers[r]] = place + (piece != 0);
            if (next < texts) {
                rows[r].position = 0;
                numbers[r] = next++;
            } else { /* the last row moves here; its logits have been read */
                rows[r] = rows[--count];
                numbers[r] = numbers[count];
            }
        }
    }
}

const char *ret_dot(void) { return DOT_NAME; }
