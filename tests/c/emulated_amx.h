/* emulated_amx.h - the instructions of AMX tiles in plain C, for processors without them.
 *
 * Included before csrc/isa.c. What the processor would refuse ends the program, and so does a second configuration before
 * a release, which it would not. Each instruction is written from its description in Intel's manual; products of bf16 take
 * what is below 2^-126 for 0 as it says. Whether memory is written before tiles read it shows on them alone. */
#ifndef EMULATED_AMX_H
#define EMULATED_AMX_H

#include <immintrin.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EMULATED_TILES = 8, EMULATED_ROWS = 16, EMULATED_BYTES = 64 };

static __thread struct {
    int configured;
    struct {
        int rows, bytes;
        uint8_t data[EMULATED_ROWS][EMULATED_BYTES];
    } tile[EMULATED_TILES];
} emulated;

static inline void emulated_refuse(int refused, const char *what) {
    if (!refused) return;
    fprintf(stderr, "emulated tiles: %s\n", what);
    abort();
}

static inline void emulated_release(void) { memset(&emulated, 0, sizeof emulated); }

static inline void emulated_loadconfig(const void *from) {
    uint8_t bytes[64];
    memcpy(bytes, from, sizeof bytes);
    emulated_refuse(bytes[0] != 1 || bytes[1] != 0, "a palette that there is not");
    for (int i = 2; i < 16; i++) emulated_refuse(bytes[i], "a reserved byte that is not 0");
    emulated_refuse(emulated.configured, "tiles that were not released");
    for (int t = 0; t < 16; t++) {
        const int width = bytes[16 + 2 * t] + 256 * bytes[17 + 2 * t], rows = bytes[48 + t];
        emulated_refuse(t >= EMULATED_TILES && (width || rows), "a shape of a tile that there is not");
        if (t >= EMULATED_TILES) continue;
        emulated_refuse(width > EMULATED_BYTES || rows > EMULATED_ROWS || !width != !rows, "a shape that does not fit");
        emulated.tile[t].rows = rows;
        emulated.tile[t].bytes = width;
    }
    emulated.configured = 1;
}

static inline void emulated_zero(int t) {
    emulated_refuse(!emulated.configured || !emulated.tile[t].rows, "no shape to fill with 0");
    memset(emulated.tile[t].data, 0, sizeof emulated.tile[t].data);
}

static inline void emulated_loadd(int t, const void *from, ptrdiff_t pitch) {
    emulated_zero(t);
    for (int r = 0; r < emulated.tile[t].rows; r++)
        memcpy(emulated.tile[t].data[r], (const char *)from + r * pitch, (size_t)emulated.tile[t].bytes);
}

static inline void emulated_stored(int t, void *to, ptrdiff_t pitch) {
    emulated_refuse(!emulated.configured || !emulated.tile[t].rows, "no shape to store");
    for (int r = 0; r < emulated.tile[t].rows; r++)
        memcpy((char *)to + r * pitch, emulated.tile[t].data[r], (size_t)emulated.tile[t].bytes);
}

static inline void emulated_shapes(int c, int a, int b) {
    emulated_refuse(!emulated.configured || c == a || c == b || a == b, "tiles that are not three");
    emulated_refuse(emulated.tile[c].rows != emulated.tile[a].rows, "other rows in A than in C");
    emulated_refuse(emulated.tile[c].bytes != emulated.tile[b].bytes, "other columns in B than in C");
    emulated_refuse(emulated.tile[a].bytes != 4 * emulated.tile[b].rows, "other rows in B than columns in A");
}

/* Products stay within tiles, and take most of the time of a check. */
#define EMULATED_UNCHECKED __attribute__((no_sanitize("address", "undefined")))

EMULATED_UNCHECKED static inline void emulated_dpbusd(int c, int a, int b) {
    emulated_shapes(c, a, b);
    for (int m = 0; m < emulated.tile[c].rows; m++)
        for (int n = 0; n < emulated.tile[c].bytes / 4; n++) {
            int32_t sum;
            memcpy(&sum, &emulated.tile[c].data[m][4 * n], sizeof sum);
            for (int k = 0; k < emulated.tile[a].bytes; k++)
                sum += emulated.tile[a].data[m][k] * (int8_t)emulated.tile[b].data[k / 4][4 * n + k % 4];
            memcpy(&emulated.tile[c].data[m][4 * n], &sum, sizeof sum);
        }
}

EMULATED_UNCHECKED static inline float emulated_flushed(float x) { return fabsf(x) < 0x1p-126f ? copysignf(0, x) : x; }

EMULATED_UNCHECKED static inline float emulated_bf16(const uint8_t *from) {
    uint16_t half;
    memcpy(&half, from, sizeof half);
    const uint32_t bits = (uint32_t)half << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return emulated_flushed(value);
}

EMULATED_UNCHECKED static inline void emulated_dpbf16ps(int c, int a, int b) {
    emulated_shapes(c, a, b);
    for (int m = 0; m < emulated.tile[c].rows; m++)
        for (int n = 0; n < emulated.tile[c].bytes / 4; n++) {
            float parts[2] = {0, 0}, sum;
            for (int k = 0; k < emulated.tile[a].bytes / 2; k++) {
                const float left = emulated_bf16(&emulated.tile[a].data[m][2 * k]);
                const float right = emulated_bf16(&emulated.tile[b].data[k / 2][4 * n + 2 * (k % 2)]);
                parts[k % 2] = emulated_flushed(fmaf(left, right, parts[k % 2]));
            }
            memcpy(&sum, &emulated.tile[c].data[m][4 * n], sizeof sum);
            sum = emulated_flushed(emulated_flushed(sum) + emulated_flushed(parts[0] + parts[1]));
            memcpy(&emulated.tile[c].data[m][4 * n], &sum, sizeof sum);
        }
}

#undef _tile_loadconfig
#undef _tile_release
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbusd
#undef _tile_dpbf16ps
#define _tile_loadconfig emulated_loadconfig
#define _tile_release emulated_release
#define _tile_zero emulated_zero
#define _tile_loadd emulated_loadd
#define _tile_stored emulated_stored
#define _tile_dpbusd emulated_dpbusd
#define _tile_dpbf16ps emulated_dpbf16ps
#endif
