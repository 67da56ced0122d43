/* Vectors as wide as the target's registers, in GNU C. */
#ifndef LANES_H
#define LANES_H

#include <stdint.h>
#ifdef __AVX2__
#include <immintrin.h>
#endif

#define INLINE static inline __attribute__((always_inline))
#if defined(__AVX512F__) && !defined(PLAIN)
#define LANES 16
#elif defined(__AVX2__) && !defined(PLAIN)
#define LANES 8
#else
#define LANES 4
#endif

typedef float Lanes __attribute__((vector_size(4 * LANES)));
typedef int32_t IntLanes __attribute__((vector_size(4 * LANES)));
typedef int8_t ByteLanes __attribute__((vector_size(LANES)));
typedef Lanes UnalignedLanes __attribute__((aligned(4), may_alias));

INLINE Lanes load(const float *from) { return *(const UnalignedLanes *)from; }

INLINE void store(float *to, Lanes x) { *(UnalignedLanes *)to = x; }

/* Floats of 16 bits; |x| < 65,504. */
INLINE Lanes load_half(const uint16_t *from) {
#if LANES == 16
    return (Lanes)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)from));
#elif LANES == 8
    return (Lanes)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)from));
#else
    IntLanes bits;
    for (int i = 0; i < LANES; i++) bits[i] = from[i];
    Lanes size = (Lanes)((bits & 0x7fff) << 13) * 0x1p112f; /* moves the exponent's zero */
    return (Lanes)((IntLanes)size | (bits & 0x8000) << 16);
#endif
}

INLINE void store_half(uint16_t *to, Lanes x) {
#if LANES == 16
    _mm256_storeu_si256((__m256i *)to, _mm512_cvtps_ph((__m512)x, 0));
#elif LANES == 8
    _mm_storeu_si128((__m128i *)to, _mm256_cvtps_ph((__m256)x, 0));
#else
    IntLanes sign = (IntLanes)x >> 16 & 0x8000;
    IntLanes size = (IntLanes)((Lanes)((IntLanes)x & 0x7fffffff) * 0x1p-112f);
    IntLanes half = (size + 0xfff + (size >> 13 & 1)) >> 13 | sign; /* half to even */
    for (int i = 0; i < LANES; i++) to[i] = half[i];
#endif
}

INLINE Lanes all(float x) { return x - (Lanes){0}; }

/* The sum in a fixed order, by halves. */
INLINE float sum(Lanes x) {
#if LANES == 16
    return _mm512_reduce_add_ps((__m512)x);
#else
    float part[LANES];
    store(part, x);
    for (int width = LANES / 2; width; width /= 2)
        for (int i = 0; i < width; i++) part[i] += part[i + width];
    return part[0];
#endif
}

INLINE int32_t sum_integers(IntLanes x) {
#if LANES == 16
    return _mm512_reduce_add_epi32((__m512i)x);
#else
    int32_t total = 0;
    for (int i = 0; i < LANES; i++) total += x[i];
    return total;
#endif
}

INLINE Lanes larger(Lanes x, Lanes y) {
    IntLanes first = x > y;
    return (Lanes)(((IntLanes)x & first) | ((IntLanes)y & ~first));
}

INLINE float largest(Lanes x) {
#if LANES == 16
    return _mm512_reduce_max_ps((__m512)x);
#else
    float most = x[0];
    for (int i = 1; i < LANES; i++) most = x[i] > most ? x[i] : most;
    return most;
#endif
}

/* Adding it rounds |x| < 2^22 to an integer, half to even, that stands in the low bits. */
#define ROUNDING 12582912.0f

/* e^x for x <= 0, to 2 units in the last place; below -87, zero. */
INLINE Lanes exponential(Lanes x) {
    Lanes power = x * 1.44269504f, shifted = power + ROUNDING;
    Lanes f = (power - (shifted - ROUNDING)) * 0.69314718f;
    Lanes y = 0.041666667f + f * (0.0083333333f + f * 0.0013888889f);
    y = 1.0f + f * (1.0f + f * (0.5f + f * (0.16666667f + f * y)));
    IntLanes scaled = (IntLanes)y + ((IntLanes)shifted << 23);
    return (Lanes)(scaled & (x > -87.0f));
}

#endif
