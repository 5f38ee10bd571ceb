/* grouped_alpha_beta.inc.c - relevance of convolutions in narrow groups, by the alpha-beta or the gamma rule.
 *
 * Sums of either sign, shares and the way back have few operations for each number that they read. A few groups at a
 * time go through all of them while they are in the L2 cache. Groups whose outputs have no relevance, often most of
 * them, take no part. */
#include "arena.h"
#include "network/alpha_beta.inc.c"
#include "network/grouped.inc.c"

enum { GROUPS_BYTES = 256 << 10 }; /* of all arrays of the groups at a time */

typedef struct {
    ptrdiff_t block;     /* groups at a time */
    ptrdiff_t n, pixels; /* of an output; of a channel */
    REAL *biases[2];     /* (groups m): the positive ones and the negative ones, 0 elsewhere */
    REAL *sums[2];       /* (block m, n): z+, z- */
    REAL *shares[2];     /* (targets, block m, n): of terms >= 0, of terms <= 0 */
    REAL *sides[2];      /* (block channels, pixels): max(x, 0), min(x, 0), where inputs have both signs */
    REAL *below;         /* (block channels, pixels): factors of the inputs <= 0 */
    double *kept, *lost; /* (2, targets, block m), (targets) */
} grouped_rule;

static void grouped_rule_layout(const fvlrp_grouped_alpha_beta_args *args, grouped_rule *b, arena *memory) {
    const ptrdiff_t size = sizeof(REAL), m = args->weights.m, targets = args->targets;
    const ptrdiff_t inputs = args->weights.channels;
    const ptrdiff_t values = 2 * inputs * b->pixels + (2 + 2 * targets) * m * b->n; /* of a group */
    b->block = imin(imax(GROUPS_BYTES / size / values, 1), args->groups);
    for (int sign = 0; sign < 2; sign++) {
        b->biases[sign] = carve(memory, args->groups, m * size);
        b->sums[sign] = carve(memory, b->block * m, b->n * size);
        b->shares[sign] = carve(memory, targets * b->block * m, b->n * size);
        b->sides[sign] = carve(memory, b->block * inputs, b->pixels * size);
    }
    b->below = carve(memory, b->block * inputs, b->pixels * size);
    b->kept = carve(memory, 2 * targets * b->block, m * (ptrdiff_t)sizeof(double));
    b->lost = carve(memory, targets, sizeof(double));
}

/* Whether an output of a group has relevance of any target. */
static int grouped_rule_alive(const fvlrp_grouped_alpha_beta_args *args, const grouped_rule *b, ptrdiff_t group) {
    const ptrdiff_t size = args->weights.m * b->n;
    for (ptrdiff_t t = 0; t < args->targets; t++)
        if (any_value((const REAL *)args->r + (t * args->groups + group) * size, size)) return 1;
    return 0;
}

/* Split n inputs by sign, unless none is negative: then returns 0. */
static int grouped_rule_split(const REAL *x, ptrdiff_t n, REAL *above, REAL *below) {
    VMASK odd = (VREAL){0} != (VREAL){0};
    for (ptrdiff_t i = 0; i < n; i += LANES) odd |= ~(load_some(x + i, imin(n - i, LANES)) >= (VREAL){0});
    if (!any_lane(odd)) return 0;
    for (ptrdiff_t i = 0, some; i < n; i += some) {
        some = imin(n - i, LANES);
        const VREAL v = load_some(x + i, some);
        store_some(above + i, positive_part(v), some);
        store_some(below + i, negative_part(v), some);
    }
    return 1;
}

/* z+ and z- of groups whose weights, windows and inputs are given. */
static int grouped_rule_sums(const fvlrp_grouped_alpha_beta_args *args, const grouped_rule *b, ptrdiff_t first,
                             fvlrp_grouped_args part) {
    int status = FVLRP_OK;
    for (int sign = 0; sign < 2 && status == FVLRP_OK; sign++) {
        if (sign && !(args->beta > 0)) break;
        part.weights.sign = sign ? FVLRP_NEGATIVE : FVLRP_POSITIVE;
        part.bias = b->biases[sign] + first * args->weights.m;
        part.c = b->sums[sign];
        status = grouped(&part);
    }
    return status;
}

/* Shares of the outputs of groups first .. first + some - 1, and what their biases keep. */
static void grouped_rule_shares(const fvlrp_grouped_alpha_beta_args *args, const grouped_rule *b, ptrdiff_t first,
                                ptrdiff_t some) {
    const ptrdiff_t m = args->weights.m, n = b->n, targets = args->targets;
    const int two = args->beta > 0 || args->gamma >= 0;
    ptrdiff_t count;
    alpha_beta(&(fvlrp_alpha_beta_args){.targets = targets,
                                        .m = some * m,
                                        .n = n,
                                        .r = (const REAL *)args->r + first * m * n,
                                        .pitch = args->groups * m * n,
                                        .ldr = n,
                                        .z = (const REAL *)args->z + first * m * n,
                                        .ldz = n,
                                        .positive = b->sums[0],
                                        .negative = args->beta > 0 ? b->sums[1] : NULL,
                                        .alpha = args->alpha,
                                        .beta = args->beta,
                                        .gamma = args->gamma,
                                        .up = b->shares[0],
                                        .down = two ? b->shares[1] : NULL,
                                        .kept = b->kept,
                                        .lost = b->lost,
                                        .count = &count});
    for (ptrdiff_t t = 0; t < targets; t++) {
        args->lost[t] += b->lost[t];
        for (int sign = 0; sign <= two; sign++)
            for (ptrdiff_t j = 0; j < some * m; j++)
                args->kept[t] += b->kept[(sign * targets + t) * some * m + j] * (double)b->biases[sign][first * m + j];
    }
}

/* to *= x, plus the product of two more arrays where `other` is not NULL. */
static void grouped_rule_inputs(ptrdiff_t n, const REAL *x, const REAL *other, const REAL *factors, REAL *to) {
    for (ptrdiff_t i = 0, some; i < n; i += some) {
        some = imin(n - i, LANES);
        VREAL r = load_some(to + i, some) * load_some(x + i, some);
        if (other) r += load_some(factors + i, some) * load_some(other + i, some);
        store_some(to + i, r, some);
    }
}

/* Groups first .. first + some - 1. */
static int grouped_rule_block(const fvlrp_grouped_alpha_beta_args *args, const grouped_rule *b, ptrdiff_t first,
                              ptrdiff_t some) {
    const ptrdiff_t m = args->weights.m, channels = some * args->weights.channels, size = channels * b->pixels;
    const ptrdiff_t at = first * args->weights.channels * b->pixels;
    const REAL *above = (const REAL *)args->x + at, *below = NULL;
    if (grouped_rule_split(above, size, b->sides[0], b->sides[1])) above = b->sides[0], below = b->sides[1];
    fvlrp_windows windows = args->windows;
    fvlrp_weights weights = args->weights;
    windows.channels = channels;
    weights.a = (const REAL *)weights.a + first * args->group;
    int status = grouped_rule_sums(args, b, first,
                                   (fvlrp_grouped_args){.groups = some,
                                                        .group = args->group,
                                                        .weights = weights,
                                                        .windows = windows,
                                                        .image = above,
                                                        .other = below,
                                                        .ldc = b->n});
    if (status == FVLRP_OK) grouped_rule_shares(args, b, first, some);
    for (ptrdiff_t t = 0; t < args->targets && status == FVLRP_OK; t++) {
        REAL *out = (REAL *)args->out + t * args->windows.channels * b->pixels + at;
        fvlrp_grouped_back_args back = {.groups = some, .group = args->group, .weights = weights, .windows = windows};
        back.share = b->shares[0] + t * some * m * b->n;
        back.other = args->beta > 0 || args->gamma >= 0 ? b->shares[1] + t * some * m * b->n : NULL;
        for (int sign = 0; sign <= (below != NULL) && status == FVLRP_OK; sign++) {
            back.weights.sign = sign ? FVLRP_NEGATIVE : FVLRP_POSITIVE;
            back.out = sign ? b->below : out;
            memset(back.out, 0, (size_t)size * sizeof(REAL));
            status = grouped_back(&back);
        }
        grouped_rule_inputs(size, above, below, b->below, out);
    }
    return status;
}

/* No relevance for the inputs of a group. */
static void grouped_rule_nothing(const fvlrp_grouped_alpha_beta_args *args, const grouped_rule *b, ptrdiff_t group) {
    const ptrdiff_t size = args->weights.channels * b->pixels;
    for (ptrdiff_t t = 0; t < args->targets; t++)
        memset((REAL *)args->out + (t * args->groups + group) * size, 0, (size_t)size * sizeof(REAL));
}

static int grouped_alpha_beta(const fvlrp_grouped_alpha_beta_args *args) {
    const fvlrp_windows *w = &args->windows;
    grouped_rule b = {.n = w->rows * w->cols, .pixels = w->height * w->width};
    arena memory = {0};
    grouped_rule_layout(args, &b, &memory);
    if (arena_open(&memory)) return FVLRP_E_MEMORY;
    grouped_rule_layout(args, &b, &memory);
    for (ptrdiff_t j = 0; j < args->groups * args->weights.m; j++) {
        const REAL bias = args->bias ? ((const REAL *)args->bias)[j] : 0;
        b.biases[0][j] = bias < 0 ? 0 : bias;
        b.biases[1][j] = bias > 0 ? 0 : bias;
    }
    memset(args->kept, 0, (size_t)args->targets * sizeof(double));
    memset(args->lost, 0, (size_t)args->targets * sizeof(double));
    int status = FVLRP_OK;
    for (ptrdiff_t first = 0, some; first < args->groups && status == FVLRP_OK; first += some) {
        for (some = 0; some < imin(b.block, args->groups - first); some++)
            if (!grouped_rule_alive(args, &b, first + some)) break;
        if (some) status = grouped_rule_block(args, &b, first, some);
        else grouped_rule_nothing(args, &b, first), some = 1;
    }
    arena_close(&memory);
    return status;
}
