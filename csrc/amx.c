/* amx.c - the tiles of AMX: whether they are here, and the system's leave to use them. */
#ifdef FVLRP_HAVE_AMX
#define _GNU_SOURCE /* syscall */
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "common.h"

#ifdef FVLRP_HAVE_AMX
/* Linux saves the tiles of a process only from when it asks for them on. */
enum { ARCH_GET_XCOMP_SUPP_ = 0x1021, ARCH_REQ_XCOMP_PERM_ = 0x1023, TILE_CONFIG = 17, TILE_DATA = 18 };

int fvlrp_has_tiles(void) {
    unsigned a, b, c, d, low, high;
    uint64_t system = 0;
    const unsigned kinds = 1u << 22 | 1u << 24 | 1u << 25; /* bf16, tiles, bytes */
    const unsigned states = 1u << TILE_CONFIG | 1u << TILE_DATA;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & kinds) != kinds) return 0;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0)); /* there, as AVX is wherever this is asked */
    if ((low & states) != states) return 0;
    return !syscall(SYS_arch_prctl, ARCH_GET_XCOMP_SUPP_, &system) && system >> TILE_DATA & 1;
}

/* For all threads of the process and its children; refused where a thread's signal stack has no room for the tiles. */
int fvlrp_ask_for_tiles(void) { return !syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM_, TILE_DATA); }
#endif
