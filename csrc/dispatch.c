/* dispatch.c - selects the instruction set; the entry of every kernel, which checks its arguments first. */
#include <string.h>

#include "kernels.h"

#define TABLES(isa) extern const fvlrp_table fvlrp_table_##isa##_f32, fvlrp_table_##isa##_f64
#ifdef FVLRP_HAVE_V2
TABLES(vnni);
TABLES(v4);
TABLES(v3);
TABLES(v2);

static int has_v2(void) { return __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("popcnt"); }
static int has_v3(void) {
    return has_v2() && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __builtin_cpu_supports("bmi2");
}
static int has_v4(void) {
    return has_v3() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl");
}
static int has_vnni(void) { return has_v4() && __builtin_cpu_supports("avx512vnni"); }
#endif
#ifdef FVLRP_HAVE_GENERIC
TABLES(generic);

static int has_generic(void) { return 1; }
#endif

/* Best first. */
#define BUILD(isa) {#isa, &fvlrp_table_##isa##_f32, &fvlrp_table_##isa##_f64, has_##isa}
static const struct build {
    const char *name;
    const fvlrp_table *f32, *f64;
    int (*supported)(void);
} builds[] = {
#ifdef FVLRP_HAVE_V2
    BUILD(vnni),
    BUILD(v4),
    BUILD(v3),
    BUILD(v2),
#endif
#ifdef FVLRP_HAVE_GENERIC
    BUILD(generic),
#endif
};
enum { BUILDS = sizeof builds / sizeof builds[0] };

static const struct build *selected;

int fvlrp_select(const char *isa) {
    for (int i = 0; i < BUILDS; i++) {
        if (isa && *isa && strcmp(isa, builds[i].name)) continue;
        if (!builds[i].supported()) continue;
        selected = &builds[i];
        return FVLRP_OK;
    }
    return FVLRP_E_ISA;
}

const char *fvlrp_isa(void) { return selected ? selected->name : "none"; }

const char *fvlrp_isa_available(int i) {
    for (int j = 0; j < BUILDS; j++)
        if (builds[j].supported() && i-- == 0) return builds[j].name;
    return NULL;
}

#define KERNEL(name, real)                                                                                             \
    int fvlrp_##name(const fvlrp_##name##_args *args) {                                                                \
        if (!selected) return FVLRP_E_ISA;                                                                             \
        const int status = fvlrp_check_##name(args);                                                                   \
        if (status != FVLRP_OK) return status;                                                                         \
        return ((real) == FVLRP_F64 ? selected->f64 : selected->f32)->name(args);                                      \
    }
FVLRP_KERNELS(KERNEL)

const char *fvlrp_words(int status) {
    switch (status) {
    case FVLRP_OK: return "no error";
    case FVLRP_E_ARGUMENT: return "a size, type or option is outside its range";
    case FVLRP_E_MEMORY: return "not enough memory for the kernel's scratch arrays";
    case FVLRP_E_FULL: return "the output array is full";
    case FVLRP_E_ISA: return "this build or this processor lacks the requested instruction set";
    default: return "unknown status";
    }
}
