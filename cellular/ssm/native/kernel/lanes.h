/* Vectors as wide as the target's registers, of float, or of double with -DDOUBLE; in GNU C. */
#ifndef LANES_H
#define LANES_H

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef __AVX512F__
#include <immintrin.h>
#define WIDTH 64
#elif defined(__AVX2__)
#define WIDTH 32
#else
#define WIDTH 16
#endif

#ifdef DOUBLE
typedef double Real;
#define exp_one exp
#else
typedef float Real;
#define exp_one expf
#endif

#define INLINE static inline __attribute__((always_inline))
#define LANES ((int)(WIDTH / sizeof(Real)))

typedef Real Lanes __attribute__((vector_size(WIDTH)));

/* Vectors that hold `count` numbers. */
INLINE int vectors(int count) { return (count + LANES - 1) / LANES; }

/* Zeros, aligned for vectors; NULL where there is no memory. */
INLINE Real *room(long count) {
    size_t size = (count * sizeof(Real) + 63) / 64 * 64;
    Real *memory = aligned_alloc(64, size ? size : 64);
    return memory ? memset(memory, 0, size) : NULL;
}

typedef Lanes UnalignedLanes __attribute__((aligned(sizeof(Real)), may_alias));

/* `count` numbers to V vectors, whose rest is zeros, and back. */
INLINE void load_row(Lanes *to, const Real *from, int count, int V) {
    if (count == V * LANES) {
        for (int v = 0; v < V; v++) to[v] = ((const UnalignedLanes *)from)[v];
    } else {
        to[V - 1] = (Lanes){0};
        memcpy(to, from, count * sizeof(Real));
    }
}

INLINE void store_row(Real *to, const Lanes *from, int count, int V) {
    if (count == V * LANES)
        for (int v = 0; v < V; v++) ((UnalignedLanes *)to)[v] = from[v];
    else
        memcpy(to, from, count * sizeof(Real));
}

INLINE void load_rows(Lanes *to, const Real *from, int rows, int count, int V) {
    for (int r = 0; r < rows; r++) load_row(to + r * V, from + (long)r * count, count, V);
}

INLINE void store_rows(Real *to, const Lanes *from, int rows, int count, int V) {
    for (int r = 0; r < rows; r++) store_row(to + (long)r * count, from + r * V, count, V);
}

INLINE Real sum(Lanes x) {
    Real total = 0;
#if defined(__AVX512F__) && !defined(DOUBLE)
    return _mm512_reduce_add_ps((__m512)x);
#endif
    for (int i = 0; i < LANES; i++) total += x[i];
    return total;
}

/* The sums of `count` vectors. */
INLINE void sums(Real *to, const Lanes *from, int count) {
    int done = 0;
#if defined(__AVX512F__) && !defined(DOUBLE)
    for (; done + 16 <= count; done += 16) { /* halves side by side, then quarters, ... */
        __m512 part[16];
        for (int i = 0; i < 16; i++) part[i] = (__m512)from[done + i];
        for (int i = 0; i < 8; i++)
            part[i] = _mm512_shuffle_f32x4(part[i], part[i + 8], 0x44) +
                      _mm512_shuffle_f32x4(part[i], part[i + 8], 0xee);
        for (int i = 0; i < 4; i++)
            part[i] = _mm512_shuffle_f32x4(part[i], part[i + 4], 0x88) +
                      _mm512_shuffle_f32x4(part[i], part[i + 4], 0xdd);
        for (int i = 0; i < 2; i++)
            part[i] = _mm512_shuffle_ps(part[i], part[i + 2], 0x44) +
                      _mm512_shuffle_ps(part[i], part[i + 2], 0xee);
        part[0] = _mm512_shuffle_ps(part[0], part[1], 0x88) + _mm512_shuffle_ps(part[0], part[1], 0xdd);
        const __m512i order = _mm512_setr_epi32(0, 2, 1, 3, 8, 10, 9, 11, 4, 6, 5, 7, 12, 14, 13, 15);
        _mm512_storeu_ps((float *)to + done, _mm512_permutexvar_ps(order, part[0]));
    }
#endif
    for (; done < count; done++) to[done] = sum(from[done]);
}

/* e^x; of float to 2 units in the last place near 0, and zero below -87. */
INLINE Lanes exponential(Lanes x) {
#ifdef DOUBLE
    for (int i = 0; i < LANES; i++) x[i] = exp(x[i]);
    return x;
#else
    typedef int32_t Integers __attribute__((vector_size(WIDTH)));
    const float rounding = 12582912.0f; /* added, it rounds to an integer that stands in the low bits */
    Lanes power = x * 1.44269504f, shifted = power + rounding;
    Lanes f = (power - (shifted - rounding)) * 0.69314718f;
    Lanes y = 0.041666667f + f * (0.0083333333f + f * 0.0013888889f);
    y = 1.0f + f * (1.0f + f * (0.5f + f * (0.16666667f + f * y)));
    Integers scaled = (Integers)y + ((Integers)shifted << 23);
    return (Lanes)(scaled & (x > -87.0f));
#endif
}

#endif
