/* arena.h - private to csrc: arrays carved from one block of memory.
 *
 * A layout function carves all arrays of a kernel in a fixed order. It runs twice: without a block it only counts, and
 * arena_open() then allocates what was counted, so that sizes are written once.
 *
 *     arena memory = {0};
 *     layout(&state, &memory);
 *     if (arena_open(&memory)) return FVLRP_E_MEMORY;
 *     layout(&state, &memory);
 *     ...
 *     arena_close(&memory);
 */
#ifndef FVLRP_ARENA_H
#define FVLRP_ARENA_H

#include <stdlib.h>
#ifdef _WIN32
#include <malloc.h>
#endif

#include "fvlrp.h"
#include "sizes.h"

typedef struct {
    char *base;     /* NULL while counting */
    ptrdiff_t used; /* bytes carved so far, a multiple of 64; -1 once a size has overflowed */
} arena;

/* An array of `count` elements of `size` bytes, aligned to a cache line; NULL while counting. */
static inline void *carve(arena *memory, ptrdiff_t count, ptrdiff_t size) {
    const size_t bytes = checked(count, size);
    if (!bytes || bytes > PTRDIFF_MAX / 2 || memory->used < 0 || memory->used > PTRDIFF_MAX / 2) {
        memory->used = -1;
        return NULL;
    }
    void *array = memory->base ? memory->base + memory->used : NULL;
    memory->used += (ptrdiff_t)((bytes + 63) & ~(size_t)63);
    return array;
}

/* Memory aligned to a cache line, for release(); `bytes` is a positive multiple of 64. Windows lacks aligned_alloc(),
 * and its substitute needs a free function of its own. */
static inline void *cache_lines(size_t bytes) {
#ifdef _WIN32
    return _aligned_malloc(bytes, 64);
#else
    return aligned_alloc(64, bytes);
#endif
}

static inline void release(void *memory) {
#ifdef _WIN32
    _aligned_free(memory);
#else
    free(memory);
#endif
}

/* Allocate the block that the layout counted, and start over. */
static inline int arena_open(arena *memory) {
    if (memory->used >= 0) memory->base = cache_lines(memory->used ? (size_t)memory->used : 64);
    memory->used = 0;
    return memory->base ? FVLRP_OK : FVLRP_E_MEMORY;
}

/* The same for a kernel that needs a single array; release() it. */
static inline void *scratch(ptrdiff_t count, ptrdiff_t size) {
    arena memory = {0};
    carve(&memory, count, size);
    return arena_open(&memory) ? NULL : memory.base;
}

static inline void arena_close(arena *memory) { release(memory->base); }

/* Elements from one row of a buffer to the next: room for a whole vector past the end, and an odd number of cache
 * lines, so that a column does not map to a single cache set. */
INLINE ptrdiff_t row_pitch(ptrdiff_t length, ptrdiff_t size) {
    const ptrdiff_t line = 64 / size;
    return (((length + line - 1) / line + 1) | 1) * line;
}

#endif
