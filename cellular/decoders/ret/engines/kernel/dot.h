/* Sums of products of 4 unsigned and 4 signed bytes, for LANES rows at once: exact on every processor.

   `Codes` are the bytes of LANES rows, 4 columns each. `quad` holds the 4 inputs of those columns. */
#ifndef DOT_H
#define DOT_H

#include <string.h>

#include "lanes.h"

INLINE int32_t load_quad(const int8_t *from) {
    int32_t quad;
    memcpy(&quad, from, sizeof quad);
    return quad;
}

#if LANES == 16 && defined(__AVX512VNNI__)

#define DOT_NAME "avx512_vnni"
typedef __m512i Codes;
typedef __m512i Sums;

INLINE Codes load_codes(const uint8_t *from) { return _mm512_loadu_si512(from); }

INLINE Codes low_nibbles(Codes codes) { return _mm512_and_si512(codes, _mm512_set1_epi8(15)); }

INLINE Codes high_nibbles(Codes codes) { return low_nibbles(_mm512_srli_epi16(codes, 4)); }

INLINE Sums sums_of(int32_t x) { return _mm512_set1_epi32(x); }

INLINE Sums add_products(Sums sums, Codes codes, int32_t quad) {
    return _mm512_dpbusd_epi32(sums, codes, _mm512_set1_epi32(quad));
}

INLINE Lanes to_lanes(Sums sums) { return (Lanes)_mm512_cvtepi32_ps(sums); }

#elif LANES == 8

#define DOT_NAME "avx2"
typedef __m256i Codes;
typedef __m256i Sums;

INLINE Codes load_codes(const uint8_t *from) { return _mm256_loadu_si256((const __m256i *)from); }

INLINE Codes low_nibbles(Codes codes) { return _mm256_and_si256(codes, _mm256_set1_epi8(15)); }

INLINE Codes high_nibbles(Codes codes) { return low_nibbles(_mm256_srli_epi16(codes, 4)); }

INLINE Sums sums_of(int32_t x) { return _mm256_set1_epi32(x); }

INLINE Sums add_products(Sums sums, Codes codes, int32_t quad) {
    __m256i inputs = _mm256_set1_epi32(quad);
#ifdef __AVXVNNI__
    return _mm256_dpbusd_avx_epi32(sums, codes, inputs);
#else /* vpmaddubsw would saturate: even and odd bytes are widened to 16 bits first */
    __m256i even = _mm256_and_si256(codes, _mm256_set1_epi16(255)), odd = _mm256_srli_epi16(codes, 8);
    __m256i even_inputs = _mm256_srai_epi16(_mm256_slli_epi16(inputs, 8), 8);
    __m256i odd_inputs = _mm256_srai_epi16(inputs, 8);
    sums = _mm256_add_epi32(sums, _mm256_madd_epi16(even, even_inputs));
    return _mm256_add_epi32(sums, _mm256_madd_epi16(odd, odd_inputs));
#endif
}

INLINE Lanes to_lanes(Sums sums) { return (Lanes)_mm256_cvtepi32_ps(sums); }

#else

#define DOT_NAME "plain"
typedef IntLanes Codes; /* little-endian: column j of a row in bits 8j to 8j + 7 */
typedef IntLanes Sums;

INLINE Codes load_codes(const uint8_t *from) {
    Codes codes;
    memcpy(&codes, from, sizeof codes);
    return codes;
}

INLINE Codes low_nibbles(Codes codes) { return codes & 0x0f0f0f0f; }

INLINE Codes high_nibbles(Codes codes) { return codes >> 4 & 0x0f0f0f0f; }

INLINE Sums sums_of(int32_t x) { return x - (Sums){0}; }

INLINE Sums add_products(Sums sums, Codes codes, int32_t quad) {
    for (int bit = 0; bit < 32; bit += 8) sums += (codes >> bit & 255) * (int32_t)(int8_t)(quad >> bit);
    return sums;
}

INLINE Lanes to_lanes(Sums sums) { return __builtin_convertvector(sums, Lanes); }

#endif
#endif
