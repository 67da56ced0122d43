/* What this processor can do at most: the loops of bench_ret.py's limits, with the kernel's own instructions. */
#include "dot.h"

#define CHAINS 12 /* independent sums, enough to hide an instruction's latency */

/* 4 * LANES * CHAINS products of bytes a round. */
int limit_int8(long rounds) {
    uint8_t bytes[4 * LANES] = {1, 2, 3};
    Codes codes = load_codes(bytes);
    Sums sums[CHAINS];
    for (int i = 0; i < CHAINS; i++) sums[i] = sums_of(i);
    for (long round = 0; round < rounds; round++)
        for (int i = 0; i < CHAINS; i++) sums[i] = add_products(sums[i], codes, 0x01020304);
    Lanes total = {0};
    for (int i = 0; i < CHAINS; i++) total += to_lanes(sums[i]);
    return (int)sum(total);
}

/* LANES * CHAINS products of floats a round. */
float limit_fp32(long rounds) {
    Lanes sums[CHAINS], factor = all(0.5f);
    for (int i = 0; i < CHAINS; i++) sums[i] = all(i);
    for (long round = 0; round < rounds; round++)
        for (int i = 0; i < CHAINS; i++) sums[i] = sums[i] * factor + 0.25f;
    Lanes total = {0};
    for (int i = 0; i < CHAINS; i++) total += sums[i];
    return sum(total);
}

/* Read an array of floats, a multiple of 8 * LANES, `rounds` times. */
float limit_read(const float *from, long count, long rounds) {
    Lanes sums[8] = {0};
    for (long round = 0; round < rounds; round++)
        for (long at = 0; at < count; at += 8 * LANES)
            for (int i = 0; i < 8; i++) sums[i] += load(from + at + i * LANES);
    Lanes total = {0};
    for (int i = 0; i < 8; i++) total += sums[i];
    return sum(total);
}

int lanes(void) { return LANES; }
