/* Sixteen floats at a time. */
#pragma once
#include <immintrin.h>
#include <stdint.h>

typedef __m512 Lanes;

#define INLINE static inline __attribute__((always_inline))
#define LANES 16

INLINE Lanes all(float x) { return _mm512_set1_ps(x); }
INLINE Lanes load(const float *x) { return _mm512_loadu_ps(x); }
INLINE void store(float *to, Lanes x) { _mm512_storeu_ps(to, x); }

/* e to the x <= 0, to 2e-7 of it (the polynomial is Cephes'). */
INLINE Lanes exponential(Lanes x) {
    x = _mm512_max_ps(x, all(-87));
    Lanes twos = _mm512_roundscale_ps(x * 1.44269504f, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    Lanes r = x - twos * 0.693359375f + twos * 2.12194440e-4f;
    Lanes sum = r * 1.9875691500e-4f + 1.3981999507e-3f;
    sum = sum * r + 8.3334519073e-3f;
    sum = sum * r + 4.1665795894e-2f;
    sum = sum * r + 1.6666665459e-1f;
    sum = sum * r + 5.0000001201e-1f;
    return _mm512_scalef_ps(sum * r * r + r + 1, twos);
}

/* x (1 + erf(x / sqrt 2)) / 2, to 3e-7; erf is a quotient of polynomials, as in Eigen. */
INLINE Lanes gelu(Lanes x) {
    Lanes z = _mm512_min_ps(_mm512_max_ps(x * 0.707106781f, all(-4)), all(4)), s = z * z;
    Lanes above = s * -2.72614225801306e-10f + 2.77068142495902e-08f;
    above = above * s + -2.10102402082508e-06f;
    above = above * s + -5.69250639462346e-05f;
    above = above * s + -7.34990630326855e-04f;
    above = above * s + -2.95459980854025e-03f;
    above = above * s + -1.60960333262415e-02f;
    Lanes below = s * -1.45660718464996e-05f + -2.13374055278905e-04f;
    below = below * s + -1.68282697438203e-03f;
    below = below * s + -7.37332916720468e-03f;
    below = below * s + -1.42647390514189e-02f;
    Lanes inverse = _mm512_rcp14_ps(below); /* and a step of Newton's, quicker than to divide */
    inverse = inverse * (2 - below * inverse);
    Lanes half = x * 0.5f;
    return half + half * (z * above * inverse);
}

/* Rows become columns: blocks off the diagonal change places, of 1, 2, 4 and 8. */
INLINE void transpose(Lanes rows[LANES]) {
    const __m512i places = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
#pragma GCC unroll 4
    for (int step = 1; step < LANES; step *= 2) {
        const __m512i by = _mm512_set1_epi32(step);
        const __mmask16 second = _mm512_test_epi32_mask(places, by);
        const __m512i left = _mm512_mask_add_epi32(places, second, places, _mm512_set1_epi32(LANES - step));
        const __m512i right = _mm512_mask_add_epi32(_mm512_add_epi32(places, by), second, places,
                                                    _mm512_set1_epi32(LANES));
#pragma GCC unroll 16
        for (int i = 0; i < LANES; i++) {
            if (i & step) continue;
            Lanes first = rows[i], other = rows[i + step];
            rows[i] = _mm512_permutex2var_ps(first, left, other);
            rows[i + step] = _mm512_permutex2var_ps(first, right, other);
        }
    }
}
