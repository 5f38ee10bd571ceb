/* kernels.c - every kernel of csrc/fvlrp.h on exact-size heap arrays, without Python; built for the sanitizers.
 *
 *     kernels [seed]
 *
 * Each instruction set that the build and the processor both have runs the same cases, whose random numbers come from
 * `seed` (0). An array ends where its memory block ends and is aligned to its elements only, so that a load past the
 * end is caught and an aligned load of unaligned memory is too. The first broken expectation ends the program with 1.
 */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels.h"

static const char *now = "start"; /* the case at hand, for messages */

#define EXPECT(condition)                                                                                            \
    do {                                                                                                             \
        if (!(condition)) {                                                                                          \
            fprintf(stderr, "%s:%d: [%s, %s] expected %s\n", __FILE__, __LINE__, fvlrp_isa(), now, #condition);      \
            exit(1);                                                                                                 \
        }                                                                                                            \
    } while (0)

/* ---- every kernel is called ---------------------------------------------------------------------------------------- */

#define KERNEL(name, real) static long calls_of_##name;
FVLRP_KERNELS(KERNEL)
#undef KERNEL

/* fvlrp_<name>() with a struct whose fields follow. */
#define CALL(name, ...) (calls_of_##name++, fvlrp_##name(&(fvlrp_##name##_args){__VA_ARGS__}))

/* ---- memory that runs out on demand and is never clean: linked with --wrap --------------------------------------- */

static long allowed = -1; /* allocations left before they fail; negative: no limit */
static int starved;

static int refuse(void) {
    if (allowed < 0) return 0;
    if (allowed-- > 0) return 0;
    allowed = 0;
    starved = 1;
    return 1;
}

/* New memory reads as NaN, or as -1, so that what is used before it is set shows. */
static void *soiled(void *block, size_t bytes) { return block ? memset(block, 0xff, bytes) : NULL; }

void *__real_malloc(size_t), *__real_calloc(size_t, size_t), *__real_aligned_alloc(size_t, size_t);
void *__wrap_malloc(size_t), *__wrap_calloc(size_t, size_t), *__wrap_aligned_alloc(size_t, size_t);
void *__wrap_malloc(size_t bytes) { return refuse() ? NULL : soiled(__real_malloc(bytes), bytes); }
void *__wrap_calloc(size_t n, size_t size) { return refuse() ? NULL : __real_calloc(n, size); }
void *__wrap_aligned_alloc(size_t alignment, size_t bytes) {
    return refuse() ? NULL : soiled(__real_aligned_alloc(alignment, bytes), bytes);
}

/* The call with its first, second, ... allocation refused says FVLRP_E_MEMORY until none is. */
#define STARVE(call)                                                                                                 \
    do {                                                                                                             \
        int status_;                                                                                                 \
        for (long left_ = 0;; left_++) {                                                                             \
            allowed = left_, starved = 0;                                                                            \
            status_ = (call);                                                                                        \
            allowed = -1;                                                                                            \
            if (!starved) break;                                                                                     \
            EXPECT(status_ == FVLRP_E_MEMORY);                                                                       \
        }                                                                                                            \
        EXPECT(status_ == FVLRP_OK);                                                                                 \
    } while (0)

/* ---- random numbers, exact arrays -------------------------------------------------------------------------------- */

static uint64_t state;

static uint64_t next(void) {
    uint64_t z = state += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}
static ptrdiff_t below(ptrdiff_t n) { return (ptrdiff_t)(next() % (uint64_t)n); }
static double uniform(double low, double high) { return low + (high - low) * (double)(next() >> 11) * 0x1p-53; }

enum { MOST = 4096 };
static void *blocks[MOST];
static int held;

/* `count` elements of `size` bytes, at the very end of their block and aligned to `size` only. */
static void *array(ptrdiff_t count, size_t size) {
    const size_t lead = below(2) ? size : 0;
    EXPECT(count >= 0 && held < MOST);
    char *block = malloc((size_t)count * size + lead);
    EXPECT(block);
    blocks[held++] = block;
    return block + lead;
}

static void release(void) {
    while (held) free(blocks[--held]);
}

static double get(int real, const void *p, ptrdiff_t i) {
    return real == FVLRP_F32 ? (double)((const float *)p)[i] : ((const double *)p)[i];
}

static void *filled(int type, ptrdiff_t count, double low, double high) {
    void *p = array(count, (size_t)type);
    for (ptrdiff_t i = 0; i < count; i++) {
        const double value = uniform(low, high);
        if (type == FVLRP_U8) ((uint8_t *)p)[i] = (uint8_t)value;
        if (type == FVLRP_F32) ((float *)p)[i] = (float)value;
        if (type == FVLRP_F64) ((double *)p)[i] = value;
    }
    return p;
}
static double *doubles(ptrdiff_t count, double low, double high) { return filled(FVLRP_F64, count, low, high); }
static double *constant(ptrdiff_t count, double value) { return doubles(count, value, value); }

static int same(const void *a, const void *b, ptrdiff_t bytes) { return bytes == 0 || !memcmp(a, b, (size_t)bytes); }
static int finite_all(int real, const void *p, ptrdiff_t count) {
    for (ptrdiff_t i = 0; i < count; i++)
        if (!isfinite(get(real, p, i))) return 0;
    return 1;
}
static int close_to(double a, double b, double tolerance) { return fabs(a - b) <= tolerance; }

/* ---- dense SIFT -------------------------------------------------------------------------------------------------- */

static ptrdiff_t fits(ptrdiff_t length, const fvlrp_scale *s) {
    const ptrdiff_t room = length - 1 - s->first - 3 * s->bin_size;
    return room < 0 ? 0 : room / s->step + 1;
}

static void sift_case(fvlrp_scale s, int type, double low, double high) {
    s.rows = fits(s.height, &s), s.cols = fits(s.width, &s);
    if (!s.rows || !s.cols) s.rows = s.cols = 0;
    const ptrdiff_t n = s.rows * s.cols, pixels = s.height * s.width;
    float *image = filled(FVLRP_F32, pixels, low, high);
    const int usual = isfinite(low) && isfinite(high);

    char *values = array(n * 128, (size_t)type), *bands = array(n * 128, (size_t)type);
    uint8_t *zeroed = array(n, 1);
    STARVE(CALL(sift, s, image, 0, s.rows, type, values, zeroed));
    memset(bands, 7, (size_t)(n * 128 * type));
    for (ptrdiff_t y = 0; y < s.rows;) {
        const ptrdiff_t end = y + 1 + below(s.rows - y);
        EXPECT(CALL(sift, s, image, y, end, type, bands, NULL) == FVLRP_OK);
        y = end;
    }
    if (usual) EXPECT(same(values, bands, n * 128 * type));
    for (ptrdiff_t l = 0; l < n && usual; l++)
        for (int i = 0; i < 128; i++) {
            const double v = type == FVLRP_U8 ? ((uint8_t *)values)[l * 128 + i] : ((float *)values)[l * 128 + i];
            EXPECT(v >= 0 && v <= 255 && (!zeroed[l] || v == 0));
        }

    for (int real = FVLRP_F32; real <= FVLRP_F64; real += 4) {
        void *relevance = filled(real, n * 128, -1, 1);
        double *map = constant(pixels, 0), *lost = constant(1, 0), sum = 0, total = 0;
        STARVE(CALL(sift_pixels, s, image, real, relevance, memset(map, 0, (size_t)pixels * 8), (*lost = 0, lost)));
        for (ptrdiff_t i = 0; i < n * 128; i++) total += get(real, relevance, i);
        for (ptrdiff_t i = 0; i < pixels; i++) sum += map[i];
        if (usual) EXPECT(close_to(sum + *lost, total, 1e-3 * (double)(n * 128)));
        const double first = map[0], before = *lost;
        EXPECT(CALL(sift_pixels, s, image, real, relevance, map, lost) == FVLRP_OK);
        if (usual) EXPECT(close_to(map[0], 2 * first, 1e-9 * (1 + fabs(first))) && close_to(*lost, 2 * before, 1e-9));
    }
    release();
}

static fvlrp_scale scale_of(ptrdiff_t height, ptrdiff_t width, ptrdiff_t bin_size, ptrdiff_t step) {
    return (fvlrp_scale){.height = height,
                         .width = width,
                         .step = step,
                         .bin_size = bin_size,
                         .window = FVLRP_WINDOW_FLAT,
                         .angles = FVLRP_ANGLES_VLFEAT,
                         .sigma = (double)bin_size / 6,
                         .window_size = 1.5,
                         .contrast_threshold = .005};
}

static void sift(void) {
    static const ptrdiff_t sizes[] = {4, 6, 8, 10, 1, 2, 3, 5, 7, 13};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        const ptrdiff_t size = sizes[i], least = 3 * size + 1;
        for (int variant = 0; variant < 8; variant++) {
            fvlrp_scale s = scale_of(least, least, size, 1 + below(5));
            const int type = variant & 4 ? FVLRP_F32 : FVLRP_U8;
            s.window = variant & 1, s.angles = variant >> 1 & 1;
            now = "SIFT on the smallest image";
            sift_case(s, type, 0, 1);
            now = "SIFT on an odd image";
            s.height += below(23), s.width += below(23), s.first = below(3);
            sift_case(s, type, 0, 1);
            now = "SIFT on one row of frames";
            s.first = 0, s.height = least;
            sift_case(s, type, 0, 1);
        }
    }
    now = "SIFT on frames far apart";
    for (ptrdiff_t size = 1; size <= 4; size++)
        for (ptrdiff_t step = 3 * size; step <= 6 * size + 2; step++)
            sift_case(scale_of(40, 43, size, step), FVLRP_U8, 0, 1);
    now = "SIFT without smoothing";
    fvlrp_scale s = scale_of(33, 37, 4, 3);
    s.sigma = 0;
    sift_case(s, FVLRP_U8, 0, 1);
    now = "SIFT smoothed over more than the image";
    s.sigma = 12;
    sift_case(s, FVLRP_U8, 0, 1);
    now = "SIFT of a constant image";
    s.sigma = .667;
    sift_case(s, FVLRP_U8, .5, .5);
    now = "SIFT of an image of NaN";
    sift_case(s, FVLRP_U8, NAN, NAN);
    now = "SIFT of an image of infinities";
    sift_case(s, FVLRP_U8, -INFINITY, INFINITY);
    s.angles = FVLRP_ANGLES_EXACT;
    sift_case(s, FVLRP_U8, NAN, NAN);
    now = "SIFT of an image too small for a frame";
    for (ptrdiff_t height = 1; height <= 4; height++)
        for (ptrdiff_t width = 1; width <= 4; width++) sift_case(scale_of(height, width, 4, 3), FVLRP_U8, 0, 1);
    sift_case(scale_of(1, 40, 4, 3), FVLRP_U8, 0, 1);
    sift_case(scale_of(40, 1, 4, 3), FVLRP_U8, 0, 1);
}

static void sift_refuses(void) {
    now = "SIFT's bad arguments";
    fvlrp_scale good = scale_of(20, 20, 4, 3), s;
    good.rows = good.cols = 3;
    float *image = filled(FVLRP_F32, 400, 0, 1);
    uint8_t *values = array(9 * 128, 1);
    double *pixels = constant(400, 0), lost = 0, *relevance = constant(9 * 128, 1);
#define REFUSED(change)                                                                                              \
    do {                                                                                                             \
        s = good;                                                                                                    \
        change;                                                                                                      \
        EXPECT(CALL(sift, s, image, 0, s.rows, FVLRP_U8, values, NULL) == FVLRP_E_ARGUMENT);                                  \
        EXPECT(CALL(sift_pixels, s, image, FVLRP_F64, relevance, pixels, &lost) == FVLRP_E_ARGUMENT);               \
    } while (0)
    REFUSED(s.height = 0);
    REFUSED(s.width = -1);
    REFUSED(s.rows = 4);
    REFUSED(s.cols = 4);
    REFUSED(s.rows = -1);
    REFUSED(s.step = 0);
    REFUSED(s.bin_size = 0);
    REFUSED(s.first = -1);
    REFUSED(s.first = 4);
    REFUSED(s.window = 2);
    REFUSED(s.angles = -1);
    REFUSED(s.sigma = NAN);
    REFUSED(s.sigma = -1);
    REFUSED(s.sigma = 1e9);
    REFUSED(s.window_size = 0);
    REFUSED(s.contrast_threshold = NAN);
    REFUSED(s.height = s.width = PTRDIFF_MAX / 2);
#undef REFUSED
    s = good;
    EXPECT(CALL(sift, s, image, -1, 3, FVLRP_U8, values, NULL) == FVLRP_E_ARGUMENT);
    EXPECT(CALL(sift, s, image, 0, 4, FVLRP_U8, values, NULL) == FVLRP_E_ARGUMENT);
    EXPECT(CALL(sift, s, image, 2, 1, FVLRP_U8, values, NULL) == FVLRP_E_ARGUMENT);
    EXPECT(CALL(sift_pixels, s, image, FVLRP_U8, relevance, pixels, &lost) == FVLRP_E_ARGUMENT);
    EXPECT(CALL(sift, s, image, 0, 3, FVLRP_F64, values, NULL) == FVLRP_E_ARGUMENT);
    release();
}

/* ---- projection, mixture, Fisher vector, relevance --------------------------------------------------------------- */

enum { IN = 128 };

typedef struct {
    int real, type, centred, picked; /* picked: rows are chosen by index, three of them left out */
    ptrdiff_t dims, components, n;
    double gate;
} mixture_case;

typedef struct {
    fvlrp_csr at;
    ptrdiff_t capacity, done;
} csr;

static csr csr_of(int real, ptrdiff_t n, ptrdiff_t capacity) {
    csr c = {{array(n + 1, 8), array(capacity, 2), array(capacity, (size_t)real)}, capacity, 0};
    c.at.indptr[0] = 0;
    return c;
}

/* The same entries in arrays with room for `capacity`, as a caller does on FVLRP_E_FULL. */
static csr grown(int real, csr old, ptrdiff_t finished, ptrdiff_t capacity) {
    csr c = old;
    const size_t used = (size_t)old.at.indptr[finished];
    c.capacity = capacity, c.at.index = array(capacity, 2), c.at.gamma = array(capacity, (size_t)real);
    if (used) memcpy(c.at.index, old.at.index, used * 2), memcpy(c.at.gamma, old.at.gamma, used * (size_t)real);
    return c;
}

static int csr_same(int real, csr a, csr b, ptrdiff_t n) {
    return same(a.at.indptr, b.at.indptr, (n + 1) * 8) && same(a.at.index, b.at.index, a.at.indptr[n] * 2) &&
           same(a.at.gamma, b.at.gamma, a.at.indptr[n] * real);
}

static void csr_holds(const mixture_case *c, csr p, ptrdiff_t start) {
    EXPECT(p.done == c->n && p.at.indptr[0] == start);
    for (ptrdiff_t l = 0; l < c->n; l++) {
        EXPECT(p.at.indptr[l] <= p.at.indptr[l + 1] && p.at.indptr[l + 1] <= p.capacity);
        double sum = 0;
        for (int64_t e = p.at.indptr[l]; e < p.at.indptr[l + 1]; e++) {
            EXPECT(p.at.index[e] < c->components && (e == p.at.indptr[l] || p.at.index[e - 1] < p.at.index[e]));
            EXPECT(get(c->real, p.at.gamma, e) >= c->gate * (1 - 1e-6));
            sum += get(c->real, p.at.gamma, e);
        }
        EXPECT(close_to(sum, 1, 1e-3 + c->gate * (double)c->components));
    }
}

/* Moments prefilled with 1, to see that kernels add. */
static fvlrp_moments moments_of(const mixture_case *c) {
    const ptrdiff_t kd = c->components * c->dims;
    return (fvlrp_moments){constant(c->components, 1), constant(kd, 1), constant(kd, 1)};
}

static void sums_agree(const mixture_case *c, fvlrp_moments a, fvlrp_moments b, double relative) {
    const ptrdiff_t kd = c->components * c->dims;
    const double size = relative * (double)(c->n + 1);
    for (ptrdiff_t k = 0; k < c->components; k++) EXPECT(close_to(a.s0[k], b.s0[k], size));
    for (ptrdiff_t i = 0; i < kd; i++) {
        EXPECT(close_to(a.s1[i], b.s1[i], 100 * size * (1 + fabs(b.s2[i]))));
        EXPECT(close_to(a.s2[i], b.s2[i], 100 * size * (1 + fabs(b.s2[i]))));
    }
}

/* The statistics by their definition. */
static fvlrp_moments sums_defined(const mixture_case *c, const fvlrp_model *m, const void *y, csr p, const double *means,
                         const double *variances) {
    fvlrp_moments s = moments_of(c);
    for (ptrdiff_t l = 0; l < c->n; l++)
        for (int64_t e = p.at.indptr[l]; e < p.at.indptr[l + 1]; e++) {
            const ptrdiff_t k = p.at.index[e];
            const double g = get(c->real, p.at.gamma, e);
            s.s0[k] += g;
            for (ptrdiff_t i = 0; i < c->dims; i++) {
                const ptrdiff_t ki = k * c->dims + i;
                const double z = (get(c->real, y, l * m->stride + i) - means[ki]) / sqrt(variances[ki]);
                s.s1[ki] += g * z, s.s2[ki] += g * z * z;
            }
        }
    return s;
}

static void relevance_case(const mixture_case *c, const fvlrp_model *m, const void *x, const int64_t *rows,
                           const void *y, csr p, const double *priors, const double *means, const double *deviations,
                           ptrdiff_t targets, int mean, double epsilon) {
    const ptrdiff_t cells = 3, kd = c->components * c->dims, table = 3 * c->components * m->stride;
    const ptrdiff_t last = !c->n ? -1 : rows ? (ptrdiff_t)rows[c->n - 1] : c->n - 1, pitch = last + 3;
    const int real = c->real;
    double *shares = doubles(cells * 2 * kd, -1, 1);
    uint8_t *member = array(cells, 1);
    member[0] = 1, member[1] = 0, member[2] = 1;
    char *tables = array(targets * table, (size_t)real);
    for (ptrdiff_t t = 0; t < targets; t++)
        STARVE(CALL(tables, m, cells, shares, member, priors, means, deviations, tables + t * table * real));
    EXPECT(finite_all(real, tables, targets * table));

    fvlrp_relevance_args out = {.model = m, .descriptors = {c->type, x, rows, c->n}, .y = y, .csr = p.at,
                                .targets = targets, .tables = tables, .epsilon = epsilon, .mean = mean, .pitch = pitch};
    const fvlrp_relevance_args nothing = out;
    out.total = constant(targets * pitch, 0);
    out.pca = filled(real, targets * pitch * c->dims, 0, 0);
    out.bins = filled(real, targets * pitch * 16, 0, 0);
    out.sift = filled(real, targets * pitch * IN, 0, 0);
    out.absorbed = constant(targets, 0);
    out.bias = constant(targets, 0);
#define RELEVANCE(args) (calls_of_relevance++, fvlrp_relevance(args))
    EXPECT(RELEVANCE(&out) == FVLRP_OK);
    for (ptrdiff_t t = 0; t < targets; t++) {
        double top = 0, size = 0, bottom = out.absorbed[t] + out.bias[t], below_size = fabs(bottom);
        for (ptrdiff_t l = t * pitch; l < (t + 1) * pitch; l++) {
            double pca = 0, row_size = 0;
            for (ptrdiff_t i = 0; i < c->dims; i++) {
                pca += get(real, out.pca, l * c->dims + i);
                row_size += fabs(get(real, out.pca, l * c->dims + i));
            }
            EXPECT(close_to(out.total[l], pca, 1e-4 * row_size + 1e-12));
            top += out.total[l], size += row_size;
            for (ptrdiff_t b = 0; b < 16; b++) {
                double bin = 0, bin_size = 0;
                for (ptrdiff_t o = 0; o < 8; o++) {
                    bin += get(real, out.sift, l * IN + 8 * b + o);
                    bin_size += fabs(get(real, out.sift, l * IN + 8 * b + o));
                }
                EXPECT(close_to(get(real, out.bins, l * 16 + b), bin, 1e-3 * (bin_size + row_size) + 1e-12));
                bottom += bin, below_size += bin_size;
            }
        }
        if (epsilon > 0) EXPECT(close_to(top, bottom, (real == FVLRP_F64 ? 1e-9 : 1e-3) * (size + below_size) + 1e-12));
    }

    /* Any output may be NULL; a refused allocation leaves nothing behind. */
    fvlrp_relevance_args part = nothing, blind = nothing;
    part.total = blind.total = out.total;
    STARVE(RELEVANCE(&part));
    blind.descriptors.x = NULL;
    EXPECT(RELEVANCE(&blind) == FVLRP_OK);
    blind.total = NULL, blind.pca = out.pca;
    EXPECT(RELEVANCE(&blind) == FVLRP_OK);
    part = nothing, part.bins = out.bins;
    STARVE(RELEVANCE(&part));
    part = nothing, part.sift = out.sift, part.absorbed = out.absorbed;
    STARVE(RELEVANCE(&part));
    part = nothing;
    EXPECT(RELEVANCE(&part) == FVLRP_OK);

    /* What was projected before is projected again, to the same bits. */
    const ptrdiff_t size = targets * pitch * 16 * real;
    part = nothing, part.bins = memset(out.bins, 0, (size_t)size);
    EXPECT(RELEVANCE(&part) == FVLRP_OK);
    void *again = part.bins = filled(real, targets * pitch * 16, 0, 0);
    part.y = NULL;
    STARVE(RELEVANCE(&part));
    EXPECT(!memcmp(again, out.bins, (size_t)size));
    part.descriptors.x = NULL;
    if (c->n) EXPECT(RELEVANCE(&part) == FVLRP_E_ARGUMENT);
#undef RELEVANCE
}

/* fvlrp_model_pack with a struct whose block is there. */
#define PACK(args) (calls_of_model_pack++, fvlrp_model_pack(args))

/* Posteriors of all rows, of which `p` holds a few at a time at first. */
static void resume(const mixture_case *c, const fvlrp_model *m, const char *y, csr *p, double *loglik) {
    for (ptrdiff_t at = 0;;) {
        fvlrp_csr to = p->at;
        to.indptr += at;
        const int status = CALL(posteriors, m, y + at * m->stride * c->real, c->n - at, to, p->capacity,
                                loglik ? loglik + at : NULL, &p->done);
        EXPECT(status == FVLRP_OK || status == FVLRP_E_FULL);
        EXPECT(p->done >= 0 && p->done <= c->n - at);
        at += p->done;
        if (status == FVLRP_OK) return;
        *p = grown(c->real, *p, at, p->capacity + c->components);
    }
}

static void mixture(mixture_case c) {
    const ptrdiff_t k = c.components, d = c.dims, n = c.n, any = n + (c.picked ? 3 : 0);
    const double loose = c.real == FVLRP_F32 ? 1e-4 : 1e-10;
    double *basis = doubles(d * IN, -.15, .15), *mean = c.centred ? doubles(IN, 0, 60) : NULL;
    double *priors = doubles(k, .5, 1), *means = doubles(k * d, -60, 60), *variances = doubles(k * d, 300, 4000);
    double *deviations = array(k * d, 8), prior_sum = 0;
    for (ptrdiff_t i = 0; i < k; i++) prior_sum += priors[i];
    for (ptrdiff_t i = 0; i < k; i++) priors[i] /= prior_sum;
    for (ptrdiff_t i = 0; i < k * d; i++) deviations[i] = sqrt(variances[i]);

    fvlrp_model m;
    fvlrp_model_pack_args args = {c.real, IN, d, k, basis, mean, priors, means, variances, c.gate, NULL, &m};
    const size_t bytes = fvlrp_model_bytes(&args);
    EXPECT(bytes > 0);
    args.block = array((ptrdiff_t)bytes, 1);
    STARVE(PACK(&args));
    EXPECT(m.stride >= d && m.stride % 16 == 0 && m.stride < d + 16);

    char *x = filled(c.type, any * IN, 0, 255.99);
    if (any) memset(x, 0, (size_t)(IN * c.type)); /* a descriptor that the contrast threshold zeroed */
    int64_t *rows = c.picked ? array(n, 8) : NULL;
    for (ptrdiff_t l = 0; rows && l < n; l++) rows[l] = l + (l >= n / 3) + 2 * (l >= n / 2);

    char *y = array(n * m.stride, (size_t)c.real), *bands = array(n * m.stride, (size_t)c.real);
    STARVE(CALL(project, &m, {c.type, x, rows, n}, y));
    for (ptrdiff_t l = 0; l < n; l++)
        for (ptrdiff_t i = 0; i < m.stride; i++) {
            double want = 0, size = 0;
            for (ptrdiff_t j = 0; j < IN && i < d; j++) {
                const ptrdiff_t at = (rows ? rows[l] : l) * IN + j;
                const double value = c.type == FVLRP_U8 ? ((uint8_t *)x)[at] : get(c.type, x, at);
                want += basis[i * IN + j] * (value - (mean ? mean[j] : 0)), size += fabs(basis[i * IN + j]) * 255;
            }
            EXPECT(close_to(get(c.real, y, l * m.stride + i), want, (c.real == FVLRP_F32 ? 1e-5 : 1e-12) * size));
        }
    for (ptrdiff_t l = 0, end; l < n; l = end) {
        end = l + 1 + below(n - l);
        const char *from = rows ? x : x + l * IN * c.type;
        char *to = bands + l * m.stride * c.real;
        EXPECT(CALL(project, &m, {c.type, from, rows ? rows + l : NULL, end - l}, to) == FVLRP_OK);
    }
    EXPECT(same(y, bands, n * m.stride * c.real));

    csr room = csr_of(c.real, n, n * k);
    double *loglik = array(n, 8), *again = array(n, 8);
    STARVE(CALL(posteriors, &m, y, n, room.at, room.capacity, loglik, &room.done));
    csr_holds(&c, room, 0);
    EXPECT(finite_all(FVLRP_F64, loglik, n));

    /* Posteriors into too small an array, again and again, and then with what another band left before them. */
    csr tight = csr_of(c.real, n, 1);
    resume(&c, &m, y, &tight, again);
    EXPECT(csr_same(c.real, room, tight, n) && same(loglik, again, n * 8));
    csr later = csr_of(c.real, n, n * k + 5);
    later.at.indptr[0] = 5;
    EXPECT(CALL(posteriors, &m, y, n, later.at, later.capacity, NULL, &later.done) == FVLRP_OK);
    csr_holds(&c, later, 5);
    EXPECT(same(room.at.gamma, (char *)later.at.gamma + 5 * c.real, room.at.indptr[n] * c.real));
    csr exact = csr_of(c.real, n, (ptrdiff_t)room.at.indptr[n]);
    resume(&c, &m, y, &exact, NULL);
    EXPECT(csr_same(c.real, room, exact, n));

    fvlrp_moments pooled = moments_of(&c), defined = sums_defined(&c, &m, y, room, means, variances);
    EXPECT(CALL(pool, &m, y, n, room.at, pooled) == FVLRP_OK);
    sums_agree(&c, pooled, defined, loose);
    fvlrp_moments spare = moments_of(&c);
    STARVE(CALL(pool, &m, y, n, room.at, spare));

    const fvlrp_descriptors descriptors = {c.type, x, rows, n};
    csr encoded = csr_of(c.real, n, n * k);
    fvlrp_moments fused = moments_of(&c);
    EXPECT(CALL(encode, &m, descriptors, bands, encoded.at, encoded.capacity, fused, &encoded.done) == FVLRP_OK);
    csr_holds(&c, encoded, 0);
    sums_agree(&c, fused, defined, 10 * loose);
    for (ptrdiff_t i = 0; i < n * m.stride; i++)
        EXPECT(close_to(get(c.real, bands, i), get(c.real, y, i), loose * 2500));
    STARVE(CALL(encode, &m, descriptors, bands, encoded.at, encoded.capacity, spare, &encoded.done));

    csr resumed = csr_of(c.real, n, 1);
    fvlrp_moments pieces = moments_of(&c);
    for (ptrdiff_t at = 0;;) {
        const fvlrp_descriptors rest = {c.type, rows ? x : x + at * IN * c.type, rows ? rows + at : NULL, n - at};
        fvlrp_csr to = resumed.at;
        to.indptr += at;
        const int status =
            CALL(encode, &m, rest, bands + at * m.stride * c.real, to, resumed.capacity, pieces, &resumed.done);
        EXPECT(status == FVLRP_OK || status == FVLRP_E_FULL);
        EXPECT(resumed.done >= 0 && resumed.done <= n - at);
        at += resumed.done;
        if (status == FVLRP_OK) break;
        resumed = grown(c.real, resumed, at, resumed.capacity + k);
    }
    EXPECT(csr_same(c.real, encoded, resumed, n));
    sums_agree(&c, pieces, fused, loose);

    relevance_case(&c, &m, x, rows, y, room, priors, means, deviations, 1, FVLRP_MEAN_NONE, 100);
    relevance_case(&c, &m, x, rows, y, room, priors, means, deviations, 3, FVLRP_MEAN_CENTERED, 1);
    relevance_case(&c, &m, x, rows, y, room, priors, means, deviations, 2, FVLRP_MEAN_BIAS, 100);
    relevance_case(&c, &m, x, rows, y, room, priors, means, deviations, 1, FVLRP_MEAN_NONE, 0);
    relevance_case(&c, &m, x, rows, y, room, priors, means, deviations, 0, FVLRP_MEAN_NONE, 100);
    release();
}

static void mixtures(void) {
    static const ptrdiff_t components[] = {1, 3, 256, 65}, dims[] = {5, 80, 33, 1, 16}, counts[] = {0, 1, 2, 7, 97};
    static const int types[] = {FVLRP_U8, FVLRP_F32, FVLRP_F64};
    static char name[120];
    now = name;
    int turn = 0;
    for (size_t i = 0; i < sizeof components / sizeof *components; i++)
        for (size_t j = 0; j < sizeof dims / sizeof *dims; j++)
            for (size_t l = 0; l < sizeof counts / sizeof *counts; l++)
                for (int real = FVLRP_F32; real <= FVLRP_F64; real += 4, turn++) {
                    /* The other choices take turns: all pairs of them come up over the cases. */
                    mixture_case c = {.real = real,
                                      .type = types[turn / 2 % 3],
                                      .centred = turn / 3 % 2,
                                      .picked = turn / 5 % 2,
                                      .dims = dims[j],
                                      .components = components[i],
                                      .n = counts[l],
                                      .gate = turn / 7 % 3 ? 1e-6 : 0};
                    snprintf(name, sizeof name, "K=%td D=%td n=%td real=%d type=%d centred=%d picked=%d gate=%g",
                             c.components, c.dims, c.n, c.real, c.type, c.centred, c.picked, c.gate);
                    mixture(c);
                }
    snprintf(name, sizeof name, "more rows than one float sum holds");
    mixture((mixture_case){FVLRP_F32, FVLRP_U8, 0, 1, 80, 16, 700, 1e-6});
    mixture((mixture_case){FVLRP_F64, FVLRP_F32, 1, 0, 33, 16, 300, 1e-6});
}

/* A mixture alone, and a projection alone. */
static void halves(void) {
    now = "a mixture without a projection";
    for (int real = FVLRP_F32; real <= FVLRP_F64; real += 4) {
        fvlrp_model m;
        double *priors = constant(3, 1. / 3), *means = doubles(15, -1, 1), *variances = doubles(15, 1, 2);
        fvlrp_model_pack_args args = {.real = real, .dims = 5, .components = 3, .priors = priors, .means = means,
                                      .variances = variances, .model = &m};
        args.block = array((ptrdiff_t)fvlrp_model_bytes(&args), 1);
        EXPECT(PACK(&args) == FVLRP_OK);
        void *y = filled(real, 4 * m.stride, 0, 0);
        csr p = csr_of(real, 4, 12);
        EXPECT(CALL(posteriors, &m, y, 4, p.at, 12, NULL, &p.done) == FVLRP_OK);
        EXPECT(p.done == 4 && p.at.indptr[4] == 12);
        EXPECT(CALL(project, &m, {FVLRP_U8, "", NULL, 0}, y) == FVLRP_E_ARGUMENT);
        now = "a projection without a mixture";
        args = (fvlrp_model_pack_args){.real = real, .inputs = 11, .dims = 7, .basis = doubles(7 * 11, -1, 1), .model = &m};
        args.block = array((ptrdiff_t)fvlrp_model_bytes(&args), 1);
        EXPECT(PACK(&args) == FVLRP_OK);
        void *x = filled(FVLRP_F64, 5 * 11, -1, 1);
        y = array(5 * m.stride, (size_t)real);
        EXPECT(CALL(project, &m, {FVLRP_F64, x, NULL, 5}, y) == FVLRP_OK);
        EXPECT(CALL(posteriors, &m, y, 4, p.at, 12, NULL, &p.done) == FVLRP_E_ARGUMENT);
        release();
    }
}

static void models_refused(fvlrp_model_pack_args good) {
    fvlrp_model_pack_args args;
#define REFUSED(change)                                                                                              \
    do {                                                                                                             \
        args = good;                                                                                                 \
        change;                                                                                                      \
        EXPECT(PACK(&args) == FVLRP_E_ARGUMENT);                                                                     \
    } while (0)
#define NO_SIZE(change)                                                                                              \
    do {                                                                                                             \
        REFUSED(change);                                                                                             \
        EXPECT(fvlrp_model_bytes(&args) == 0);                                                                       \
    } while (0)
    NO_SIZE(args.real = FVLRP_U8);
    NO_SIZE(args.inputs = -1);
    NO_SIZE(args.dims = 0);
    NO_SIZE(args.components = -3);
    NO_SIZE(args.components = 1 << 17);
    REFUSED(args.basis = NULL);
    REFUSED(args.priors = NULL);
    REFUSED(args.variances = NULL);
    REFUSED(args.gate = -1);
    REFUSED(args.gate = NAN);
    REFUSED(args.block = NULL);
    REFUSED(args.model = NULL);
#undef NO_SIZE
#undef REFUSED
}

static void mixture_refuses(void) {
    now = "the mixture's bad arguments";
    fvlrp_model m;
    double *basis = doubles(5 * IN, -1, 1), *priors = constant(3, 1. / 3), *means = doubles(15, -9, 9);
    double *variances = constant(15, 4), *shares = constant(30, 1);
    fvlrp_model_pack_args args = {FVLRP_F32, IN, 5, 3, basis, NULL, priors, means, variances, 1e-6, NULL, &m};
    args.block = array((ptrdiff_t)fvlrp_model_bytes(&args), 1);
    models_refused(args);
    EXPECT(PACK(&args) == FVLRP_OK);

    uint8_t *x = array(2 * IN, 1), member = 1;
    memset(x, 9, 2 * IN);
    float *y = filled(FVLRP_F32, 2 * m.stride, 0, 0), *table = array(3 * 3 * m.stride, 4);
    csr p = csr_of(FVLRP_F32, 2, 6);
    fvlrp_moments s = {constant(3, 0), constant(15, 0), constant(15, 0)};
    EXPECT(CALL(project, NULL, {FVLRP_U8, x, NULL, 2}, y) == FVLRP_E_ARGUMENT);
    EXPECT(CALL(project, &m, {2, x, NULL, 2}, y) == FVLRP_E_ARGUMENT);
    EXPECT(CALL(project, &m, {FVLRP_U8, x, NULL, -1}, y) == FVLRP_E_ARGUMENT);
    EXPECT(CALL(posteriors, NULL, y, 2, p.at, 6, NULL, &p.done) == FVLRP_E_ARGUMENT);
    EXPECT(CALL(posteriors, &m, y, -1, p.at, 6, NULL, &p.done) == FVLRP_E_ARGUMENT);
    EXPECT(CALL(posteriors, &m, y, 2, p.at, -1, NULL, &p.done) == FVLRP_E_ARGUMENT);
    EXPECT(CALL(posteriors, &m, y, 2, p.at, 0, NULL, &p.done) == FVLRP_E_FULL && p.done == 0);
    EXPECT(CALL(posteriors, &m, y, 2, p.at, 6, NULL, &p.done) == FVLRP_OK);
    EXPECT(CALL(pool, NULL, y, 2, p.at, s) == FVLRP_E_ARGUMENT);
    EXPECT(CALL(pool, &m, y, -1, p.at, s) == FVLRP_E_ARGUMENT);
#define ENCODE(m_, type, n, capacity) CALL(encode, m_, {type, x, NULL, n}, y, p.at, capacity, s, &p.done)
    EXPECT(ENCODE(NULL, FVLRP_U8, 2, 6) == FVLRP_E_ARGUMENT);
    EXPECT(ENCODE(&m, 0, 2, 6) == FVLRP_E_ARGUMENT);
    EXPECT(ENCODE(&m, FVLRP_U8, -2, 6) == FVLRP_E_ARGUMENT);
    EXPECT(ENCODE(&m, FVLRP_U8, 2, -6) == FVLRP_E_ARGUMENT);
    EXPECT(ENCODE(&m, FVLRP_U8, 2, 6) == FVLRP_OK);
#undef ENCODE
    EXPECT(CALL(tables, NULL, 1, shares, &member, priors, means, variances, table) == FVLRP_E_ARGUMENT);
    EXPECT(CALL(tables, &m, -1, shares, &member, priors, means, variances, table) == FVLRP_E_ARGUMENT);
    EXPECT(CALL(tables, &m, 1, shares, &member, priors, means, variances, table) == FVLRP_OK);
    float *bins = array(2 * 16, 4);
    double absorbed = 0;
    const fvlrp_relevance_args good = {.model = &m, .descriptors = {FVLRP_U8, x, NULL, 2}, .y = y, .csr = p.at,
                                       .targets = 1, .tables = table, .epsilon = 1, .pitch = 2, .bins = bins};
    fvlrp_relevance_args bad;
#define REFUSED(change)                                                                                              \
    do {                                                                                                             \
        bad = good;                                                                                                  \
        change;                                                                                                      \
        EXPECT(fvlrp_relevance(&bad) == FVLRP_E_ARGUMENT);                                                           \
    } while (0)
    REFUSED(bad.model = NULL);
    REFUSED(bad.descriptors.x = NULL);
    REFUSED((bad.descriptors.x = NULL, bad.bins = NULL, bad.absorbed = &absorbed));
    REFUSED(bad.descriptors.type = 5);
    REFUSED(bad.descriptors.n = -2);
    REFUSED(bad.targets = -1);
    REFUSED(bad.epsilon = -1);
    REFUSED(bad.epsilon = NAN);
    REFUSED(bad.mean = 3);
#undef REFUSED
    EXPECT(fvlrp_relevance(&good) == FVLRP_OK);
    release();
}

/* ---- the whole vector -------------------------------------------------------------------------------------------- */

static void vector_case(ptrdiff_t cells, ptrdiff_t length, double epsilon, int spreads) {
    const ptrdiff_t n = cells * length;
    double *sums = doubles(n, -300, 300), *relevance = doubles(n, -1, 1), *x = array(n, 8), *out = array(n, 8);
    double *spread = spreads ? constant(n, 300) : NULL, *epsilons = constant(cells, epsilon), *ledger = array(3, 8);
    int64_t *counts = array(cells, 8);
    for (ptrdiff_t c = 0; c < cells; c++) counts[c] = c % 3 == 1 ? 0 : 9;
    for (ptrdiff_t i = 0; i < n; i++) {
        if (i % 7 == 2 || !counts[i / length]) sums[i] = 0;
        if (i % 11 == 3) sums[i] = -0.0;
        if (i % 13 == 4) sums[i] = 1e-12;
    }
    STARVE(CALL(normalise, cells, length, sums, x));
    double energy = 0, any = 0;
    for (ptrdiff_t c = 0; c < cells; c++) {
        double square = 0;
        for (ptrdiff_t i = c * length; i < (c + 1) * length; i++) square += sums[i] * sums[i];
        for (ptrdiff_t i = c * length; i < (c + 1) * length; i++) {
            EXPECT(isfinite(x[i]) && (sums[i] > 0 ? x[i] > 0 : sums[i] < 0 ? x[i] < 0 : x[i] == 0));
            energy += x[i] * x[i], any += square;
        }
    }
    EXPECT(any == 0 ? energy == 0 : close_to(energy, 1, 1e-9));

    /* The same numbers as both orders of one component in each cell, and of several components in one cell. */
    const ptrdiff_t shapes[2][3] = {{cells, 1, length / 2}, {1, cells / 2, length}};
    for (int i = 0; i < 2; i++) {
        STARVE(CALL(normalise_intra, shapes[i][0], shapes[i][1], shapes[i][2], 1.0, sums, x));
        double norm = 0, most = 0;
        for (ptrdiff_t j = 0; j < 2 * shapes[i][0] * shapes[i][1] * shapes[i][2]; j++) {
            EXPECT(isfinite(x[j]) && (sums[j] > 0 ? x[j] > 0 : sums[j] < 0 ? x[j] < 0 : x[j] == 0));
            norm += x[j] * x[j], most = fmax(most, fabs(sums[j]));
        }
        EXPECT(most == 0 ? norm == 0 : close_to(norm, 1, 1e-9));
    }

    STARVE(CALL(shares, cells, length, relevance, sums, counts, epsilons, spread, out, ledger));
    double absorbed = 0, empty = 0, zero = 0, size = 1;
    for (ptrdiff_t i = 0; i < n; i++) {
        const double s = fabs(sums[i]), r = relevance[i];
        const int dead = spread ? s <= 1e-12 * spread[i] : s == 0;
        size += fabs(r);
        if (!counts[i / length]) {
            EXPECT(out[i] == 0);
            empty += r;
            continue;
        }
        const double share = dead && epsilon == 0 ? 0 : sums[i] < 0 ? -r / (s + epsilon) : r / (s + epsilon);
        EXPECT(close_to(out[i], share, 1e-12 * fabs(share)));
        if (dead) zero += r;
        else absorbed += r * epsilon / (s + epsilon);
    }
    EXPECT(close_to(ledger[0], absorbed, 1e-12 * size) && close_to(ledger[1], empty, 1e-12 * size));
    EXPECT(close_to(ledger[2], zero, 1e-12 * size));
    release();
}

static void merge_case(ptrdiff_t parts, ptrdiff_t finest, ptrdiff_t cells, ptrdiff_t components, ptrdiff_t dims) {
    const ptrdiff_t kd = components * dims;
    fvlrp_part *part = array(parts, sizeof *part);
    uint8_t *member = array(finest * cells, 1);
    double *priors = constant(components, 0.5), *sums = array(cells * 2 * kd, 8), *occupancy = array(cells * components, 8);
    for (ptrdiff_t i = 0; i < finest * cells; i++) member[i] = (uint8_t)below(2);
    for (ptrdiff_t p = 0; p < parts; p++)
        part[p] = (fvlrp_part){below(finest), (double)(1 + below(3)),
                               {doubles(components, 0, 1), doubles(kd, -1, 1), doubles(kd, 0, 1)}};
    STARVE(CALL(merge, parts, finest, cells, components, dims, part, member, priors, sums, occupancy));
    for (ptrdiff_t c = 0; c < cells; c++)
        for (ptrdiff_t k = 0; k < components; k++) {
            double s0 = 0;
            for (ptrdiff_t p = 0; p < parts; p++)
                if (member[part[p].finest * cells + c]) s0 += part[p].times * part[p].moments.s0[k];
            EXPECT(close_to(occupancy[c * components + k], s0, 1e-12 * (1 + s0)));
            for (ptrdiff_t d = 0; d < dims; d++) {
                double s1 = 0, s2 = 0;
                for (ptrdiff_t p = 0; p < parts; p++) {
                    if (!member[part[p].finest * cells + c]) continue;
                    s1 += part[p].times * part[p].moments.s1[k * dims + d];
                    s2 += part[p].times * part[p].moments.s2[k * dims + d];
                }
                EXPECT(close_to(sums[(c * 2 * components + k) * dims + d], s1 * sqrt(2.0), 1e-9));
                EXPECT(close_to(sums[((c * 2 + 1) * components + k) * dims + d], s2 - s0, 1e-9));
            }
        }
    release();
}

static void scores_case(ptrdiff_t n, ptrdiff_t length) {
    float *coef = filled(FVLRP_F32, n * length, -1, 1), *x = filled(FVLRP_F32, length, -1, 1);
    double *out = array(n, 8);
    EXPECT(CALL(scores, n, length, coef, x, out) == FVLRP_OK);
    for (ptrdiff_t i = 0; i < n; i++) {
        double sum = 0;
        for (ptrdiff_t j = 0; j < length; j++) sum += (double)coef[i * length + j] * (double)x[j];
        EXPECT(close_to(out[i], sum, 1e-6 * (double)(length + 1)));
    }
    release();
}

static void vectors(void) {
    static const ptrdiff_t lengths[] = {0, 1, 2, 5, 15, 16, 17, 33, 480};
    now = "the whole vector";
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++)
        for (ptrdiff_t cells = 0; cells <= 8; cells++) {
            vector_case(cells, lengths[i], 100, 0);
            vector_case(cells, lengths[i], 0, 0);
            vector_case(cells, lengths[i], 0, 1);
            vector_case(cells, lengths[i], 1, 1);
        }
    now = "merged sums";
    for (ptrdiff_t parts = 0; parts < 7; parts += 3)
        for (ptrdiff_t finest = 1; finest < 4; finest++) {
            merge_case(parts, finest, 3, 1, 1);
            merge_case(parts, finest, 8, 5, 80);
            merge_case(parts, finest, 0, 2, 3);
        }
    now = "scores";
    for (ptrdiff_t n = 0; n < 12; n++)
        for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) scores_case(n, 9 * lengths[i]);
    now = "exchanged descriptors and roots";
    fvlrp_model_pack_args pack = {FVLRP_F64, 0, 3, 2, NULL, NULL, doubles(2, .4, .6), doubles(6, -1, 1),
                                  doubles(6, .5, 2), 1e-6, NULL, &(fvlrp_model){0}};
    pack.block = array((ptrdiff_t)fvlrp_model_bytes(&pack), 1);
    EXPECT(fvlrp_model_pack(&pack) == FVLRP_OK);
    int64_t *of_rows = array(2, 8), *of_group = array(2, 8), *of_cells = array(1, 8), *begin = array(2, 8),
            *end = array(2, 8);
    of_rows[0] = 1, of_rows[1] = 0, of_group[0] = of_group[1] = of_cells[0] = 0;
    begin[0] = 0, end[0] = begin[1] = 1, end[1] = 2;
    uint16_t *which = array(2, 2);
    which[0] = 0, which[1] = 1;
    float *posterior = filled(FVLRP_F32, 2, .1, 1), *projected = filled(FVLRP_F32, 32, -1, 1);
    const fvlrp_encoded kept = {2, 2, projected, begin, end, which, posterior};
    double *swapped = doubles(12, 0, 0), *parts = array(6, 8);
    uint8_t *stale = array(2, 1);
    stale[0] = stale[1] = 0;
    STARVE((memset(swapped, 0, 96), CALL(exchange, pack.model, 2, 1, 1, 1, of_rows, of_group, of_cells, kept, kept,
                                        pack.priors, swapped, stale)));
    for (int i = 0; i < 12; i++) EXPECT(fabs(swapped[i]) < 1e-12); /* the same descriptors, in another order */
    EXPECT(stale[0] && stale[1]);
    float *weight = filled(FVLRP_F32, 12, -1, 1);
    STARVE(CALL(roots, 1, 2, 3, swapped, weight, stale, parts, parts + 2, parts + 4));
    EXPECT(!stale[0] && !stale[1]);
    of_cells[0] = 1;
    EXPECT(CALL(exchange, pack.model, 2, 1, 1, 1, of_rows, of_group, of_cells, kept, kept, pack.priors, swapped,
                stale) == FVLRP_E_ARGUMENT);
    of_cells[0] = 0, which[1] = 2;
    EXPECT(CALL(exchange, pack.model, 2, 1, 1, 1, of_rows, of_group, of_cells, kept, kept, pack.priors, swapped,
                stale) == FVLRP_E_ARGUMENT);
    EXPECT(CALL(roots, -1, 2, 3, swapped, weight, stale, parts, parts, parts) == FVLRP_E_ARGUMENT);
    now = "the whole vector's bad arguments";
    double one = 1, epsilon = NAN, ledger[3];
    const int64_t count = 1;
    const float half = 0.5f;
    const uint8_t inside = 1;
    fvlrp_part part = {0, 1, {&one, &one, &one}};
    EXPECT(CALL(merge, 1, 1, 1, 1, -1, &part, &inside, &one, &one, &one) == FVLRP_E_ARGUMENT);
    EXPECT(CALL(merge, 1, 1, -1, 1, 1, &part, &inside, &one, &one, &one) == FVLRP_E_ARGUMENT);
    part.finest = 1;
    EXPECT(CALL(merge, 1, 1, 1, 1, 1, &part, &inside, &one, &one, &one) == FVLRP_E_ARGUMENT);
    part.finest = -1;
    EXPECT(CALL(merge, 1, 1, 1, 1, 1, &part, &inside, &one, &one, &one) == FVLRP_E_ARGUMENT);
    EXPECT(CALL(scores, -1, 1, &half, &half, &one) == FVLRP_E_ARGUMENT);
    EXPECT(CALL(scores, 1, -1, &half, &half, &one) == FVLRP_E_ARGUMENT);
    EXPECT(CALL(scores, PTRDIFF_MAX, 3, &half, &half, &one) == FVLRP_E_ARGUMENT);
    EXPECT(CALL(normalise, -1, 1, &one, &one) == FVLRP_E_ARGUMENT);
    EXPECT(CALL(normalise, 1, -1, &one, &one) == FVLRP_E_ARGUMENT);
    EXPECT(CALL(normalise, PTRDIFF_MAX, 3, &one, &one) == FVLRP_E_ARGUMENT);
    EXPECT(CALL(normalise_intra, -1, 1, 1, 1.0, &one, &one) == FVLRP_E_ARGUMENT);
    EXPECT(CALL(normalise_intra, 1, -1, 1, 1.0, &one, &one) == FVLRP_E_ARGUMENT);
    EXPECT(CALL(normalise_intra, 1, 1, -1, 1.0, &one, &one) == FVLRP_E_ARGUMENT);
    EXPECT(CALL(normalise_intra, PTRDIFF_MAX / 4, 2, 2, 1.0, &one, &one) == FVLRP_E_ARGUMENT);
    EXPECT(CALL(normalise_intra, 0, 1, 1, 0.0, &one, &one) == FVLRP_E_ARGUMENT);
    EXPECT(CALL(normalise_intra, 0, 1, 1, NAN, &one, &one) == FVLRP_E_ARGUMENT);
    EXPECT(CALL(shares, -1, 1, &one, &one, &count, &one, NULL, &one, ledger) == FVLRP_E_ARGUMENT);
    EXPECT(CALL(shares, 1, -1, &one, &one, &count, &one, NULL, &one, ledger) == FVLRP_E_ARGUMENT);
    EXPECT(CALL(shares, 1, 1, &one, &one, &count, &epsilon, NULL, &one, ledger) == FVLRP_E_ARGUMENT);
    epsilon = -1;
    EXPECT(CALL(shares, 1, 1, &one, &one, &count, &epsilon, NULL, &one, ledger) == FVLRP_E_ARGUMENT);
}

/* ---- splats ------------------------------------------------------------------------------------------------------ */

enum { BOX, HALVED_ENDS, TRIANGLE, KERNELS };

static void splat_case(int real, int kernel, ptrdiff_t rows, ptrdiff_t cols, ptrdiff_t bins, ptrdiff_t spacing,
                       ptrdiff_t length, ptrdiff_t lead, ptrdiff_t more) {
    const ptrdiff_t step = 1 + below(4), first = below(4), reach = first + spacing * (bins - 1) + 1 + more;
    const ptrdiff_t height = reach + step * (rows ? rows - 1 : 0), width = reach + step * (cols ? cols - 1 : 0);
    void *values = filled(real, rows * cols * bins * bins, -1, 1);
    double *weight_y = doubles(rows * bins, .5, 2), *weight_x = doubles(cols * bins, .5, 2);
    double *taps = constant(length, .5), *pixels = constant(height * width, 1), *want = constant(height * width, 1);
    if (kernel == HALVED_ENDS) taps[0] = taps[length - 1] = .25;
    for (ptrdiff_t t = 0; t < length && kernel == TRIANGLE; t++) taps[t] = (double)(t + 1);
#define SPLAT                                                                                                        \
    CALL(splat, real, values, rows, cols, bins, spacing, first, step, weight_y, weight_x, taps, length, lead, height,  \
         width, pixels)
    EXPECT(SPLAT == FVLRP_OK);
    for (ptrdiff_t p = 0; p < rows * cols * bins * bins; p++) {
        const ptrdiff_t ix = p % bins, iy = p / bins % bins, c = p / bins / bins % cols, r = p / bins / bins / cols;
        const double value = get(real, values, p) * weight_y[r * bins + iy] * weight_x[c * bins + ix];
        for (ptrdiff_t i = 0; i < length; i++)
            for (ptrdiff_t j = 0; j < length; j++) {
                const ptrdiff_t y = first + step * r + spacing * iy + lead + i;
                const ptrdiff_t x = first + step * c + spacing * ix + lead + j;
                if (y >= 0 && x >= 0 && y < height && x < width) want[y * width + x] += value * taps[i] * taps[j];
            }
    }
    for (ptrdiff_t i = 0; i < height * width; i++) EXPECT(close_to(pixels[i], want[i], 1e-9 * (1 + fabs(want[i]))));
    STARVE(SPLAT);
#undef SPLAT
    release();
}

static void splat(void) {
    now = "splat";
    for (int real = FVLRP_F32; real <= FVLRP_F64; real += 4)
        for (int kernel = 0; kernel < KERNELS; kernel++) {
            for (int turn = 0; turn < 30; turn++) {
                const ptrdiff_t bins = below(2) ? 4 : 1, length = 1 + below(21);
                splat_case(real, kernel, below(9), below(9), bins, below(11), length, -below(length + 3), below(6));
            }
            splat_case(real, kernel, 0, 0, 4, 4, 4, -2, 0);
            splat_case(real, kernel, 1, 1, 1, 0, 1, 0, 0);
            splat_case(real, kernel, 1, 3, 4, 10, 40, -20, 0);
            now = "splat of a kernel that never meets the image";
            splat_case(real, kernel, 2, 2, 1, 0, 3, 200, 0);
            splat_case(real, kernel, 2, 2, 1, 0, 3, -200, 0);
        }
    now = "splat's bad arguments";
    double one = 1, pixel = 0;
#define SPLAT(real, rows, cols, bins, spacing, first, step, length, height, width)                                   \
    CALL(splat, real, &one, rows, cols, bins, spacing, first, step, &one, &one, &one, length, 0, height, width, &pixel)
    EXPECT(SPLAT(FVLRP_F64, 1, 1, 1, 0, 0, 1, 1, 1, 1) == FVLRP_OK);
    EXPECT(SPLAT(FVLRP_U8, 1, 1, 1, 0, 0, 1, 1, 1, 1) == FVLRP_E_ARGUMENT);
    EXPECT(SPLAT(FVLRP_F64, -1, 1, 1, 0, 0, 1, 1, 1, 1) == FVLRP_E_ARGUMENT);
    EXPECT(SPLAT(FVLRP_F64, 1, -1, 1, 0, 0, 1, 1, 1, 1) == FVLRP_E_ARGUMENT);
    EXPECT(SPLAT(FVLRP_F64, 1, 1, 0, 0, 0, 1, 1, 1, 1) == FVLRP_E_ARGUMENT);
    EXPECT(SPLAT(FVLRP_F64, 1, 1, 1, -1, 0, 1, 1, 1, 1) == FVLRP_E_ARGUMENT);
    EXPECT(SPLAT(FVLRP_F64, 1, 1, 2, 1, 0, 1, 1, 1, 1) == FVLRP_E_ARGUMENT);
    EXPECT(SPLAT(FVLRP_F64, 1, 1, 1, 0, -1, 1, 1, 1, 1) == FVLRP_E_ARGUMENT);
    EXPECT(SPLAT(FVLRP_F64, 1, 1, 1, 0, 1, 1, 1, 1, 1) == FVLRP_E_ARGUMENT);
    EXPECT(SPLAT(FVLRP_F64, 2, 1, 1, 0, 0, 1, 1, 1, 1) == FVLRP_E_ARGUMENT);
    EXPECT(SPLAT(FVLRP_F64, 1, 2, 1, 0, 0, 1, 1, 1, 1) == FVLRP_E_ARGUMENT);
    EXPECT(SPLAT(FVLRP_F64, 1, 1, 1, 0, 0, 0, 1, 1, 1) == FVLRP_E_ARGUMENT);
    EXPECT(SPLAT(FVLRP_F64, 1, 1, 1, 0, 0, 1, 0, 1, 1) == FVLRP_E_ARGUMENT);
    EXPECT(SPLAT(FVLRP_F64, 1, 1, 1, 0, 0, 1, 1, 0, 1) == FVLRP_E_ARGUMENT);
    EXPECT(SPLAT(FVLRP_F64, 1, 1, 1, 0, 0, 1, 1, 1, -1) == FVLRP_E_ARGUMENT);
    EXPECT(SPLAT(FVLRP_F64, 1, 1, 1, 0, 0, 1, 1, PTRDIFF_MAX, PTRDIFF_MAX) == FVLRP_E_ARGUMENT);
#undef SPLAT
    EXPECT(pixel == 1);
}

/* ---- dense products and convolutions ----------------------------------------------------------------------------- */

static fvlrp_windows windows_of(ptrdiff_t height, ptrdiff_t width) {
    return (fvlrp_windows){.channels = 1 + below(4), .height = height, .width = width, .kernel_y = 1 + below(4),
                           .kernel_x = 1 + below(4), .stride_y = 1 + below(3), .stride_x = 1 + below(3),
                           .dilation_y = 1 + below(2), .dilation_x = 1 + below(2), .top = below(9) - 3,
                           .left = below(9) - 3, .first = below(3), .rows = below(9), .cols = 1 + below(20)};
}

static double pixel_of(int real, const fvlrp_windows *w, const void *image, ptrdiff_t k, ptrdiff_t j) {
    const ptrdiff_t kx = k % w->kernel_x, ky = k / w->kernel_x % w->kernel_y, c = k / w->kernel_x / w->kernel_y;
    const ptrdiff_t y = (w->first + j / w->cols) * w->stride_y + ky * w->dilation_y - w->top;
    const ptrdiff_t x = j % w->cols * w->stride_x + kx * w->dilation_x - w->left;
    if (y < 0 || x < 0 || y >= w->height || x >= w->width) return 0;
    return get(real, image, (c * w->height + y) * w->width + x);
}

static double signed_weight(int sign, double w) {
    return sign == FVLRP_ALL ? w : sign == FVLRP_SIZE ? fabs(w) : sign == FVLRP_POSITIVE ? fmax(w, 0) : fmin(w, 0);
}

static double clipped(double v, const double *bounds) { return bounds ? fmin(fmax(v, bounds[0]), bounds[1]) : v; }

/* A lies with its taps turned about where `turned`; rows of B and C are `more` longer than they need to be. */
static void product_case(int real, const fvlrp_windows *w, ptrdiff_t m, ptrdiff_t k, ptrdiff_t n, ptrdiff_t taps,
                         int turned, int add, ptrdiff_t more) {
    const ptrdiff_t ldb = n + more, ldc = n + more, tap = turned ? -1 : 1;
    char *a = filled(real, m * k, -1, 1), *bias = filled(real, m, -1, 1);
    void *b = filled(real, w ? w->channels * w->height * w->width : k ? (k - 1) * ldb + n : 0, -1, 1);
    const ptrdiff_t size = m && n ? (m - 1) * ldc + n : 0;
    char *c = filled(real, size, -1, 1), *before = array(size, (size_t)real);
    memcpy(before, c, (size_t)(size * real));
    const void *first = a + (turned && k ? (taps - 1) * real : 0);
    const int sign = (int)below(4) - 1;
    const fvlrp_weights weights = {first, m, k / taps, taps, k, taps, tap, sign};
    const double limits[2] = {-.3, .4}, *bounds = below(2) ? limits : NULL;
#define PRODUCT CALL(product, real, weights, n, b, ldb, w, bias, add, c, ldc, bounds)
    EXPECT(PRODUCT == FVLRP_OK);
    for (ptrdiff_t i = 0; i < size; i++) {
        const ptrdiff_t y = i / ldc, x = i % ldc;
        double sum = get(real, before, i);
        if (x < n) {
            sum = (add ? sum : 0) + get(real, bias, y);
            for (ptrdiff_t j = 0; j < k; j++)
                sum += signed_weight(sign, get(real, a, y * k + (turned ? j - j % taps + taps - 1 - j % taps : j))) *
                       (w ? pixel_of(real, w, b, j, x) : get(real, b, j * ldb + x));
            sum = clipped(sum, bounds);
        }
        EXPECT(close_to(get(real, c, i), sum, (real == FVLRP_F32 ? 1e-6 : 1e-14) * (double)(k + 2)));
    }
    if (!add) STARVE(PRODUCT);
#undef PRODUCT
    release();
}

static void products(void) {
    const ptrdiff_t depths[] = {0, 1, 7, 127, 128, 129, 300};
    for (int real = FVLRP_F32; real <= FVLRP_F64; real += 4)
        for (int turn = 0; turn < 60; turn++) {
            const ptrdiff_t depth = depths[below(7)], more = below(2) * (1 + below(5));
            now = "product";
            product_case(real, NULL, below(20), depth, below(150), 1, 0, turn % 2, more);
            if (depth % 7 == 0) product_case(real, NULL, below(9), depth, below(70), 7, 1, turn % 2, more);
            now = "convolution";
            const fvlrp_windows w = windows_of(1 + below(12), 1 + below(25));
            const ptrdiff_t taps = w.kernel_y * w.kernel_x;
            product_case(real, &w, below(9), w.channels * taps, w.rows * w.cols, taps, below(2) > 0, turn % 2, more);
        }
    now = "product's bad arguments";
    double one = 1, c = 0;
    fvlrp_windows w = {1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 1, 1};
#define PRODUCT(real, m, channels, taps, sign, n, ldb, windows, ldc) \
    CALL(product, real, {&one, m, channels, taps, 1, 1, 1, sign}, n, &one, ldb, windows, NULL, 0, &c, ldc, NULL)
    EXPECT(PRODUCT(FVLRP_U8, 1, 1, 1, 0, 1, 1, NULL, 1) == FVLRP_E_ARGUMENT);
    EXPECT(PRODUCT(FVLRP_F64, -1, 1, 1, 0, 1, 1, NULL, 1) == FVLRP_E_ARGUMENT);
    EXPECT(PRODUCT(FVLRP_F64, 1, -1, 1, 0, 1, 1, NULL, 1) == FVLRP_E_ARGUMENT);
    EXPECT(PRODUCT(FVLRP_F64, 1, 1, 1, 0, -1, 1, NULL, 1) == FVLRP_E_ARGUMENT);
    EXPECT(PRODUCT(FVLRP_F64, 1, 1, 0, 0, 1, 1, NULL, 1) == FVLRP_E_ARGUMENT);
    EXPECT(PRODUCT(FVLRP_F64, 1, PTRDIFF_MAX, 2, 0, 1, 1, NULL, 1) == FVLRP_E_ARGUMENT);
    EXPECT(PRODUCT(FVLRP_F64, 1, 1, 1, 3, 1, 1, NULL, 1) == FVLRP_E_ARGUMENT);
    EXPECT(PRODUCT(FVLRP_F64, 1, 2, 1, 0, 2, 1, NULL, 2) == FVLRP_E_ARGUMENT);
    EXPECT(PRODUCT(FVLRP_F64, 2, 1, 1, 0, 2, 2, NULL, 1) == FVLRP_E_ARGUMENT);
    EXPECT(PRODUCT(FVLRP_F64, 1, 2, 1, 0, 1, 1, &w, 1) == FVLRP_E_ARGUMENT);
    EXPECT(PRODUCT(FVLRP_F64, 1, 1, 2, 0, 1, 1, &w, 1) == FVLRP_E_ARGUMENT);
    EXPECT(PRODUCT(FVLRP_F64, 1, 1, 1, 0, 2, 1, &w, 2) == FVLRP_E_ARGUMENT);
    w.stride_x = 0;
    EXPECT(PRODUCT(FVLRP_F64, 1, 1, 1, 0, 1, 1, &w, 1) == FVLRP_E_ARGUMENT);
    w.stride_x = 1, w.height = PTRDIFF_MAX;
    EXPECT(PRODUCT(FVLRP_F64, 1, 1, 1, 0, 1, 1, &w, 1) == FVLRP_E_ARGUMENT);
    EXPECT(c == 0);
    w.height = 1;
    EXPECT(PRODUCT(FVLRP_F64, 1, 1, 1, 0, 1, 1, &w, 1) == FVLRP_OK && c == 1);
#undef PRODUCT
}

/* Filters lie output by output, or channel by channel with their taps turned about. */
static void winograd_case(ptrdiff_t m, int turned, int sign, int add, ptrdiff_t more) {
    fvlrp_windows w = windows_of(1 + below(14), 1 + below(40));
    w.channels = 1 + below(40);
    w.kernel_y = w.kernel_x = 3;
    w.stride_y = w.stride_x = w.dilation_y = w.dilation_x = 1;
    const ptrdiff_t n = w.rows * w.cols, k = w.channels * 9, ldc = n + more, size = n ? (m - 1) * ldc + n : 0;
    const ptrdiff_t row = turned ? 9 : k, channel = turned ? 9 * m : 9, tap = turned ? -1 : 1;
    const int two = sign != FVLRP_ALL && sign != FVLRP_SIZE && below(2);
    float *a = filled(FVLRP_F32, m * k, -1, 1), *bias = filled(FVLRP_F32, m, -1, 1);
    float *image = filled(FVLRP_F32, w.channels * w.height * w.width, -1, 1);
    float *other = two ? filled(FVLRP_F32, w.channels * w.height * w.width, -1, 1) : NULL;
    float *c = filled(FVLRP_F32, size, -1, 1), *before = array(size, 4), *whole = filled(FVLRP_F32, size, -1, 1);
    memcpy(before, c, (size_t)size * sizeof(float));
    const float *first = turned ? a + 8 : a;
    const fvlrp_weights weights = {first, m, w.channels, 9, row, channel, tap, sign};
#define WINOGRAD(doubt, whole) CALL(winograd, weights, w, image, other, bias, add, doubt, whole, ldc, c, ldc)
    EXPECT(WINOGRAD(0, NULL) == FVLRP_OK);
    for (ptrdiff_t i = 0; i < size; i++) {
        const ptrdiff_t y = i / ldc, x = i % ldc;
        double sum = (double)before[i];
        if (x < n) {
            sum = (add ? sum : 0) + (double)bias[y];
            for (ptrdiff_t j = 0; j < k; j++) {
                const double weight = (double)first[y * row + j / 9 * channel + j % 9 * tap];
                sum += signed_weight(sign, weight) * pixel_of(FVLRP_F32, &w, image, j, x);
                if (two) sum += signed_weight(-sign, weight) * pixel_of(FVLRP_F32, &w, other, j, x);
            }
        }
        EXPECT(close_to((double)c[i], sum, 1e-6 * (double)(k + 2)));
    }
    if (!add) STARVE(WINOGRAD(0, NULL));
    if (sign == FVLRP_POSITIVE) EXPECT(WINOGRAD(1e-3, NULL) == FVLRP_OK && WINOGRAD(1e-3, whole) == FVLRP_OK);
#undef WINOGRAD
    release();
}

static void winograds(void) {
    now = "Winograd's product";
    for (int turn = 0; turn < 24; turn++)
        winograd_case(1 + below(turn % 4 ? 20 : 90), turn % 2, (int)below(4) - 1, (int)below(2), below(3));
    now = "bad arguments of Winograd's product";
    fvlrp_windows w = {1, 4, 4, 3, 3, 1, 1, 1, 1, 1, 1, 0, 4, 4};
    float a[9] = {0}, x[16] = {0}, c[16];
#define WINOGRAD(m, sign, other, doubt, whole, ldw, ldc) \
    CALL(winograd, {a, m, 1, 9, 9, 9, 1, sign}, w, x, other, NULL, 0, doubt, whole, ldw, c, ldc)
    EXPECT(WINOGRAD(1, 0, NULL, 0, NULL, 0, 16) == FVLRP_OK);
    EXPECT(WINOGRAD(-1, 0, NULL, 0, NULL, 0, 16) == FVLRP_E_ARGUMENT);
    EXPECT(WINOGRAD(1, 3, NULL, 0, NULL, 0, 16) == FVLRP_E_ARGUMENT);
    EXPECT(WINOGRAD(1, 0, x, 0, NULL, 0, 16) == FVLRP_E_ARGUMENT);
    EXPECT(WINOGRAD(1, 0, NULL, -1, NULL, 0, 16) == FVLRP_E_ARGUMENT);
    EXPECT(WINOGRAD(1, 0, NULL, NAN, NULL, 0, 16) == FVLRP_E_ARGUMENT);
    EXPECT(WINOGRAD(1, 0, NULL, 0, x, 16, 16) == FVLRP_E_ARGUMENT);
    EXPECT(WINOGRAD(2, 0, NULL, 1e-3, x, 15, 16) == FVLRP_E_ARGUMENT);
    EXPECT(WINOGRAD(2, 0, NULL, 0, NULL, 0, 15) == FVLRP_E_ARGUMENT);
    w.dilation_x = 2;
    EXPECT(WINOGRAD(1, 0, NULL, 0, NULL, 0, 16) == FVLRP_E_ARGUMENT);
#undef WINOGRAD
}

/* ---- relevance of linear layers and pools ------------------------------------------------------------------------ */

static void dense_case(int real, ptrdiff_t m, ptrdiff_t n, ptrdiff_t count, ptrdiff_t targets) {
    const double tolerance = (real == FVLRP_F32 ? 1e-5 : 1e-12) * (double)(n + count + 1);
    void *weight = filled(real, m * n, -1, 1), *above = filled(real, n, 0, 1), *below_ = filled(real, n, -1, 0);
    void *up = array(count, (size_t)real), *down = array(count, (size_t)real);
    void *high = filled(real, targets * count, -1, 1), *low = filled(real, targets * count, -1, 1);
    void *to = filled(real, targets * n, 2, 2), *from = filled(real, targets * n, 3, 3);
    int64_t *rows = array(count, sizeof(int64_t));
    for (ptrdiff_t i = 0; i < count; i++) rows[i] = below(m);
    const fvlrp_outputs outputs = {real, weight, m, n, rows, count};
    EXPECT(CALL(dense_sums, outputs, above, below_, up, down) == FVLRP_OK);
    EXPECT(CALL(dense_back, outputs, targets, high, low, to, from) == FVLRP_OK);
    for (ptrdiff_t i = 0; i < count; i++) {
        double sums[2] = {0, 0};
        for (ptrdiff_t j = 0; j < n; j++) {
            const double w = get(real, weight, rows[i] * n + j);
            sums[0] += fmax(w, 0) * get(real, above, j) + fmin(w, 0) * get(real, below_, j);
            sums[1] += fmin(w, 0) * get(real, above, j) + fmax(w, 0) * get(real, below_, j);
        }
        EXPECT(close_to(get(real, up, i), sums[0], tolerance) && close_to(get(real, down, i), sums[1], tolerance));
    }
    for (ptrdiff_t t = 0; t < targets; t++)
        for (ptrdiff_t j = 0; j < n; j++) {
            double sums[2] = {2, 3};
            for (ptrdiff_t i = 0; i < count; i++) {
                const double w = get(real, weight, rows[i] * n + j), h = get(real, high, t * count + i);
                const double l = get(real, low, t * count + i);
                sums[0] += fmax(w, 0) * h + fmin(w, 0) * l;
                sums[1] += fmax(w, 0) * l + fmin(w, 0) * h;
            }
            EXPECT(close_to(get(real, to, t * n + j), sums[0], tolerance));
            EXPECT(close_to(get(real, from, t * n + j), sums[1], tolerance));
        }
    EXPECT(CALL(dense_sums, outputs, above, NULL, up, down) == FVLRP_OK);
    EXPECT(CALL(dense_back, outputs, targets, high, low, to, NULL) == FVLRP_OK);
    double *kept = doubles(targets, 0, 0), *lost = doubles(targets, 0, 0);
#define FUSED(under, alpha, bias, from) \
    CALL(dense_alpha_beta, outputs, above, under, bias, targets, high, alpha, 1, to, from, kept, lost)
    STARVE(FUSED(below_, 2, up, from));
    EXPECT(FUSED(NULL, 2, NULL, NULL) == FVLRP_OK && FUSED(NULL, -1, NULL, NULL) == FVLRP_E_ARGUMENT);
#undef FUSED
    if (count) {
        rows[count - 1] = m;
        EXPECT(CALL(dense_sums, outputs, above, NULL, up, down) == FVLRP_E_ARGUMENT);
        EXPECT(CALL(dense_back, outputs, targets, high, low, to, NULL) == FVLRP_E_ARGUMENT);
    }
    release();
}

static void alpha_beta_case(int real, ptrdiff_t targets, ptrdiff_t m, ptrdiff_t n) {
    const double tolerance = real == FVLRP_F32 ? 1e-4 : 1e-12;
    const ptrdiff_t ldr = n + below(3), pitch = m * ldr, capacity = below(3);
    void *r = filled(real, (targets - 1) * pitch + (m - 1) * ldr + n, -1, 1), *positive = filled(real, m * n, 1, 2);
    void *z = filled(real, m * n, -2, 0.5), *up = array(targets * m * n, (size_t)real);
    void *down = array(targets * m * n, (size_t)real);
    double *kept = array(2 * targets * m, 8), *lost = array(targets, 8);
    int64_t *doubtful = array(capacity, 8);
    ptrdiff_t count;
    double gamma = -1;
    int halves = 0;
#define ALPHA_BETA(alpha, beta, z, weak) \
    CALL(alpha_beta, real, targets, m, n, r, pitch, ldr, z, n, positive, alpha, beta, weak, up, down, kept, lost, \
         capacity, doubtful, &count, NULL, gamma, halves)
    uint8_t *alive = array(m, 1);
    const ptrdiff_t whole = ldr == n ? m : 1;
    EXPECT(CALL(alive, real, targets, whole, n, r, pitch, alive) == FVLRP_OK && alive[0] == 1);
    EXPECT(CALL(alive, real, 0, m, n, r, pitch, alive) == FVLRP_OK && alive[m - 1] == 0);
    EXPECT(CALL(alive, real, -1, m, n, r, pitch, alive) == FVLRP_E_ARGUMENT);
    EXPECT(ALPHA_BETA(2, 1, z, 1e-4) == FVLRP_OK && count == 0);
    for (ptrdiff_t t = 0; t < targets; t++)
        for (ptrdiff_t j = 0; j < m; j++) {
            double sums[2] = {0, 0};
            for (ptrdiff_t i = 0; i < n; i++) {
                const ptrdiff_t at = (t * m + j) * n + i;
                const double each = get(real, r, t * pitch + j * ldr + i), p = get(real, positive, j * n + i);
                const double share = 2 * each / p, other = -each / (get(real, z, j * n + i) - p);
                EXPECT(close_to(get(real, up, at), share, tolerance) && close_to(get(real, down, at), other, tolerance));
                sums[0] += share, sums[1] += other;
            }
            EXPECT(close_to(kept[t * m + j], sums[0], tolerance * (double)n));
            EXPECT(close_to(kept[(targets + t) * m + j], sums[1], tolerance * (double)n));
        }
    EXPECT(ALPHA_BETA(2, 1, positive, 1e-4) == FVLRP_OK && count == m * n); /* z- = 0 everywhere */
    for (ptrdiff_t i = 0; i < capacity && i < m * n; i++) EXPECT(doubtful[i] == i);
    EXPECT(ALPHA_BETA(1, 0, NULL, 1e-4) == FVLRP_OK && count == 0);
    EXPECT(ALPHA_BETA(2, 1, NULL, 1e-4) == FVLRP_E_ARGUMENT && ALPHA_BETA(2, 1, z, -1) == FVLRP_E_ARGUMENT);
    gamma = 0.25, halves = 1;
    EXPECT(ALPHA_BETA(0, 0, NULL, 0) == FVLRP_E_ARGUMENT && ALPHA_BETA(0, 0, z, 0) == FVLRP_OK && count == 0);
    for (ptrdiff_t i = 0; i < n; i++) { /* of the last target's last row */
        const double each = get(real, r, (targets - 1) * pitch + (m - 1) * ldr + i), own = get(real, z, m * n - n + i);
        const double p = get(real, positive, m * n - n + i), share = each / (own + gamma * (own >= 0 ? p : own - p));
        const ptrdiff_t at = targets * m * n - n + i;
        EXPECT(close_to(get(real, up, at), share * (1 + gamma / 2), tolerance));
        EXPECT(close_to(get(real, down, at), share * gamma / (own >= 0 ? 2 : -2), tolerance));
    }
#undef ALPHA_BETA
    release();
}

static void pool_case(int real) {
    fvlrp_windows w = windows_of(1 + below(9), 1 + below(20));
    const ptrdiff_t cells = w.channels * w.rows * w.cols, pixels = w.channels * w.height * w.width, targets = 1 + below(2);
    void *image = filled(real, pixels, -1, 1), *maxima = array(cells, (size_t)real);
    void *r = filled(real, targets * cells, 1, 1), *back = filled(real, targets * pixels, 0, 0);
    STARVE(CALL(max_pool, real, w, image, maxima));
    EXPECT(CALL(max_pool_back, real, w, image, maxima, targets, r, back) == FVLRP_OK);
    const ptrdiff_t taps = w.kernel_y * w.kernel_x;
    double found = 0, sum = 0;
    for (ptrdiff_t i = 0; i < cells; i++) {
        double most = -INFINITY;
        fvlrp_windows inside = w;
        const ptrdiff_t c = i / (w.rows * w.cols), j = i % (w.rows * w.cols);
        for (ptrdiff_t t = 0; t < taps; t++) {
            const ptrdiff_t y = (w.first + j / w.cols) * w.stride_y + t / w.kernel_x * w.dilation_y - w.top;
            const ptrdiff_t x = j % w.cols * w.stride_x + t % w.kernel_x * w.dilation_x - w.left;
            if (y >= 0 && x >= 0 && y < w.height && x < w.width)
                most = fmax(most, pixel_of(real, &inside, image, c * taps + t, j));
        }
        EXPECT(get(real, maxima, i) == most);
        found += (most > -INFINITY) * (double)targets;
    }
    for (ptrdiff_t i = 0; i < targets * pixels; i++) sum += get(real, back, i);
    EXPECT(sum == found);
    w.stride_y = 0;
    EXPECT(CALL(max_pool, real, w, image, maxima) == FVLRP_E_ARGUMENT);
    EXPECT(CALL(max_pool_back, real, w, image, maxima, targets, r, back) == FVLRP_E_ARGUMENT);
    release();
}

/* ---- convolutions in groups ---- */

/* Relevance is kept: by the inputs, by the biases, or by denominators of 0. The first output has none. */
static void grouped_relevance_case(int real, ptrdiff_t groups, fvlrp_weights weights, fvlrp_windows w, const void *image,
                                   const void *bias) {
    const ptrdiff_t targets = 1 + below(2), outputs = groups * weights.m, n = w.rows * w.cols, k = weights.row;
    const ptrdiff_t pixels = w.channels * w.height * w.width;
    void *r = filled(real, targets * outputs * n, -1, 1), *z = filled(real, outputs * n, 0, 0);
    void *out = filled(real, targets * pixels, 3, 3);
    double *kept = doubles(targets, 0, 0), *lost = doubles(targets, 0, 0), gamma = below(2) ? .25 : -1, alpha = 2;
    w.first = 0, weights.sign = FVLRP_ALL;
    for (ptrdiff_t t = 0; t < targets; t++)
        memset((char *)r + t * outputs * n * real, 0, (size_t)(n * real));
    EXPECT(CALL(grouped, real, groups, weights.m * k, weights, w, image, NULL, bias, 0, z, n, NULL) == FVLRP_OK);
#define RELEVANCE_OF                                                                                                 \
    CALL(grouped_alpha_beta, real, groups, weights.m * k, weights, w, image, bias, targets, r, z, alpha, 1, gamma, out, \
         kept, lost)
    EXPECT(RELEVANCE_OF == FVLRP_OK);
    for (ptrdiff_t t = 0; t < targets; t++) {
        double before = 0, after = kept[t] + lost[t];
        for (ptrdiff_t i = 0; i < outputs * n; i++) before += get(real, r, t * outputs * n + i);
        for (ptrdiff_t i = 0; i < pixels; i++) after += get(real, out, t * pixels + i);
        EXPECT(close_to(after, before, (real == FVLRP_F32 ? 1e-4 : 1e-12) * (double)(1 + outputs * n)));
    }
    STARVE(RELEVANCE_OF);
    alpha = -1;
    EXPECT(RELEVANCE_OF == FVLRP_E_ARGUMENT);
#undef RELEVANCE_OF
}

static void grouped_case(int real, int depthwise) {
    fvlrp_windows w = windows_of(1 + below(14), 1 + below(40));
    const ptrdiff_t groups = 1 + below(3), inputs = depthwise ? 1 : 1 + below(3);
    const ptrdiff_t m = depthwise ? 1 : below(2) ? 1 + below(2) : 3 + below(6);
    if (depthwise) { /* what is summed straight from the image */
        w.kernel_y = w.kernel_x = 3 + 2 * below(3);
        w.stride_y = w.stride_x = 1 + below(2);
        w.dilation_y = w.dilation_x = 1;
    }
    w.channels = groups * inputs;
    const double limits[2] = {-.3, .4}, *bounds = below(2) ? limits : NULL;
    const ptrdiff_t taps = w.kernel_y * w.kernel_x, k = inputs * taps, n = w.rows * w.cols, ldc = n + below(3);
    const ptrdiff_t outputs = groups * m, pixels = w.channels * w.height * w.width;
    const int sign = (int)below(4) - 1, two = (sign == FVLRP_POSITIVE || sign == FVLRP_NEGATIVE) && below(2);
    const int add = (int)below(2);
    const ptrdiff_t size = n ? (outputs - 1) * ldc + n : 0;
    void *a = filled(real, outputs * k, -1, 1), *bias = filled(real, outputs, -1, 1);
    void *image = filled(real, pixels, -1, 1), *other = two ? filled(real, pixels, -1, 1) : NULL;
    void *c = filled(real, size, -1, 1), *before = array(size, (size_t)real);
    memcpy(before, c, (size_t)(size * real));
    const fvlrp_weights weights = {a, m, inputs, taps, k, taps, 1, sign};
#define DEPTHWISE CALL(grouped, real, groups, m * k, weights, w, image, other, bias, add, c, ldc, bounds)
    EXPECT(DEPTHWISE == FVLRP_OK);
    for (ptrdiff_t i = 0; i < size; i++) {
        const ptrdiff_t o = i / ldc, x = i % ldc;
        double sum = get(real, before, i);
        if (x < n) {
            sum = (add ? sum : 0) + get(real, bias, o);
            for (ptrdiff_t j = 0; j < k; j++) {
                const double weight = get(real, a, o * k + j);
                const ptrdiff_t row = o / m * k + j; /* of the windows of the whole image */
                sum += signed_weight(sign, weight) * pixel_of(real, &w, image, row, x);
                if (two) sum += signed_weight(-sign, weight) * pixel_of(real, &w, other, row, x);
            }
            sum = clipped(sum, bounds);
        }
        EXPECT(close_to(get(real, c, i), sum, (real == FVLRP_F32 ? 1e-5 : 1e-13) * (double)(k + 2)));
    }
    if (!add) STARVE(DEPTHWISE);
#undef DEPTHWISE

    /* The adjoint: sum of shares times the convolution of a probe = sum of what goes back times the probe. */
    void *share = filled(real, outputs * n, -1, 1), *second = two ? filled(real, outputs * n, -1, 1) : NULL;
    void *out = filled(real, pixels, 0, 0), *probe = filled(real, pixels, -1, 1);
    EXPECT(CALL(grouped_back, real, groups, m * k, weights, w, share, second, out) == FVLRP_OK);
    double forth = 0, back = 0;
    for (ptrdiff_t o = 0; o < outputs; o++)
        for (ptrdiff_t x = 0; x < n; x++)
            for (ptrdiff_t j = 0; j < k; j++) {
                const double weight = get(real, a, o * k + j), pixel = pixel_of(real, &w, probe, o / m * k + j, x);
                forth += signed_weight(sign, weight) * pixel * get(real, share, o * n + x);
                if (two) forth += signed_weight(-sign, weight) * pixel * get(real, second, o * n + x);
            }
    for (ptrdiff_t i = 0; i < pixels; i++) back += get(real, out, i) * get(real, probe, i);
    EXPECT(close_to(forth, back, (real == FVLRP_F32 ? 1e-5 : 1e-12) * (double)(1 + outputs * n * k)));
    STARVE(CALL(grouped_back, real, groups, m * k, weights, w, share, second, out));
    grouped_relevance_case(real, groups, weights, w, image, bias);
    release();
}

/* Terms of sums: what each gets adds up to what there was. */
static void join_case(int real, ptrdiff_t count, ptrdiff_t targets, ptrdiff_t n, double gamma) {
    const double tolerance = real == FVLRP_F32 ? 1e-4 : 1e-10;
    fvlrp_join_args args = {.real = real, .count = count, .targets = targets, .n = n, .alpha = 2, .beta = 1};
    args.gamma = gamma, args.r = filled(real, targets * n, -1, 1);
    for (ptrdiff_t k = 0; k < count; k++) {
        args.terms[k] = filled(real, n, .5, 1); /* of one sign: they take all in proportion */
        args.out[k] = array(targets * n, (size_t)real);
    }
    calls_of_join++;
    EXPECT(fvlrp_join(&args) == FVLRP_OK);
    for (ptrdiff_t i = 0; i < targets * n; i++) {
        double sum = 0, found = 0;
        for (ptrdiff_t k = 0; k < count; k++) sum += get(real, args.terms[k], i % n), found += get(real, args.out[k], i);
        EXPECT(close_to(found, get(real, args.r, i), tolerance));
        const double first = get(real, args.terms[0], i % n) / sum * get(real, args.r, i);
        EXPECT(close_to(get(real, args.out[0], i), first, tolerance));
    }
    args.count = FVLRP_MOST_TERMS + 1;
    EXPECT(fvlrp_join(&args) == FVLRP_E_ARGUMENT);
    args.count = count, args.alpha = -1;
    EXPECT(fvlrp_join(&args) == FVLRP_E_ARGUMENT);
    release();
}

/* No outputs: nothing to do. */
static void grouped_without_outputs(void) {
    now = "convolutions in groups without outputs";
    double x[9] = {1};
    const fvlrp_windows w = {1, 3, 3, 1, 1, 1, 1, 1, 1, 0, 0, 0, 3, 3};
    const fvlrp_weights weights = {x, 0, 1, 1, 1, 1, 1, 0};
    EXPECT(CALL(grouped, FVLRP_F64, 1, 0, weights, w, x, NULL, NULL, 0, x, 9, NULL) == FVLRP_OK);
    EXPECT(CALL(grouped_back, FVLRP_F64, 1, 0, weights, w, x, NULL, x) == FVLRP_OK);
    EXPECT(x[0] == 1);
}

static void grouped_refuses(void) {
    now = "bad arguments of convolutions in groups";
    double a[9] = {0}, x = 1, c = 0;
    const fvlrp_windows good = {1, 1, 1, 3, 3, 1, 1, 1, 1, 1, 1, 0, 1, 1};
    fvlrp_windows w;
#define REFUSED(groups, m, channels, taps, sign, other, ldc, change)                                                 \
    do {                                                                                                             \
        w = good;                                                                                                    \
        change;                                                                                                      \
        const fvlrp_weights weights = {a, m, channels, taps, 9, 9, 1, sign};                                         \
        EXPECT(CALL(grouped, FVLRP_F64, groups, 9, weights, w, &x, other, NULL, 0, &c, ldc, NULL) == FVLRP_E_ARGUMENT);  \
        if (ldc) EXPECT(CALL(grouped_back, FVLRP_F64, groups, 9, weights, w, &x, other, &c) == FVLRP_E_ARGUMENT);  \
    } while (0)
    REFUSED(0, 1, 1, 9, 0, NULL, 1, (void)0);
    REFUSED(2, 1, 1, 9, 0, NULL, 1, (void)0);
    REFUSED(1, -1, 1, 9, 0, NULL, 1, (void)0);
    REFUSED(1, 1, 2, 9, 0, NULL, 1, (void)0);
    REFUSED(1, 1, 1, 8, 0, NULL, 1, (void)0);
    REFUSED(1, 1, 1, 9, 3, NULL, 1, (void)0);
    REFUSED(1, 1, 1, 9, 0, &x, 1, (void)0);
    REFUSED(1, 1, 1, 9, 2, &x, 1, (void)0);
    REFUSED(1, 2, 1, 9, 0, NULL, 0, (void)0);
    REFUSED(1, 1, 1, 9, 0, NULL, 1, w.stride_x = 0);
#undef REFUSED
    EXPECT(c == 0);
}

/* ---- elementwise functions and rows ---- */

static double function_of(int function, double x) {
    const double logistic = 1 / (1 + exp(-x)), hard = fmin(fmax(x / 6 + 0.5, 0), 1);
    switch (function) {
    case FVLRP_SIGMOID: return logistic;
    case FVLRP_TANH: return tanh(x);
    case FVLRP_ERF: return erf(x);
    case FVLRP_SILU: return x * logistic;
    case FVLRP_GELU: return 0.5 * x * erfc(-x * sqrt(0.5));
    case FVLRP_GELU_TANH: return 0.5 * x * (1 + tanh(sqrt(2 / acos(-1)) * (x + 0.044715 * x * x * x)));
    case FVLRP_HARD_SIGMOID: return hard;
    default: return x * hard;
    }
}

static void rows_case(int real, ptrdiff_t n, ptrdiff_t length) {
    const double tolerance = real == FVLRP_F32 ? 1e-5 : 1e-12;
    void *x = filled(real, n * length, -9, 9), *out = array(n * length, (size_t)real);
    for (int function = 0; function < FVLRP_FUNCTIONS; function++) {
        EXPECT(CALL(activate, real, function, n * length, x, out) == FVLRP_OK);
        for (ptrdiff_t i = 0; i < n * length; i++)
            EXPECT(close_to(get(real, out, i), function_of(function, get(real, x, i)), tolerance));
    }
    EXPECT(CALL(activate, real, FVLRP_FUNCTIONS, 1, x, out) == FVLRP_E_ARGUMENT);
    EXPECT(CALL(activate, real, 0, -1, x, out) == FVLRP_E_ARGUMENT);

    EXPECT(CALL(softmax, real, n, length, x, out) == FVLRP_OK);
    for (ptrdiff_t row = 0; row < n; row++) {
        double sum = 0;
        for (ptrdiff_t i = row * length; i < (row + 1) * length; i++) sum += exp(get(real, x, i));
        for (ptrdiff_t i = row * length; i < (row + 1) * length; i++)
            EXPECT(close_to(get(real, out, i), exp(get(real, x, i)) / sum, tolerance));
    }
    EXPECT(CALL(softmax, real, -1, length, x, out) == FVLRP_E_ARGUMENT);

    void *weight = filled(real, length, -1, 1), *bias = filled(real, length, -1, 1);
    double *mean = array(n, 8), *inverse = array(n, 8);
    for (int plain = 0; plain < 2; plain++) {
        EXPECT(CALL(layer_norm, real, n, length, x, weight, bias, 1e-5, plain, out, mean, inverse) == FVLRP_OK);
        for (ptrdiff_t row = 0; row < n; row++) {
            double centre = 0, square = 0;
            for (ptrdiff_t i = 0; i < length && !plain; i++) centre += get(real, x, row * length + i) / (double)length;
            for (ptrdiff_t i = 0; i < length; i++) square += pow(get(real, x, row * length + i) - centre, 2);
            const double by = 1 / sqrt(square / (double)length + 1e-5);
            EXPECT(length == 0 || (close_to(mean[row], centre, 1e-9) && close_to(inverse[row] / by, 1, 1e-6)));
            for (ptrdiff_t i = 0; i < length; i++)
                EXPECT(close_to(get(real, out, row * length + i),
                                (get(real, x, row * length + i) - centre) * by * get(real, weight, i) +
                                    get(real, bias, i),
                                tolerance + 1e-4 * (length == 1)));
        }
    }
    EXPECT(CALL(layer_norm, real, n, length, x, NULL, NULL, 0, 0, out, NULL, NULL) == FVLRP_OK);
    EXPECT(CALL(layer_norm, real, n, length, x, NULL, NULL, NAN, 0, out, NULL, NULL) == FVLRP_E_ARGUMENT);
    release();
}

static void network_layers(void) {
    for (int real = FVLRP_F32; real <= FVLRP_F64; real += 4)
        for (int turn = 0; turn < 20; turn++) {
            now = "dense layers";
            dense_case(real, 1 + below(9), 1 + below(turn % 5 ? 70 : 1500), below(12), 1 + below(3));
            now = "alpha-beta";
            alpha_beta_case(real, 1 + below(3), 1 + below(4), 1 + below(150));
            now = "pools";
            pool_case(real);
            now = "joins";
            join_case(real, 1 + below(FVLRP_MOST_TERMS), 1 + below(3), 1 + below(90), turn % 2 ? -1 : .25);
            now = "convolutions in groups";
            grouped_case(real, turn % 2);
            now = "elementwise functions and rows";
            rows_case(real, below(4), below(turn % 3 ? 20 : 300));
        }
    grouped_refuses();
    grouped_without_outputs();
}

/* ---- dispatch ---------------------------------------------------------------------------------------------------- */

static void before_a_choice(void) {
    now = "before fvlrp_select";
    EXPECT(!strcmp(fvlrp_isa(), "none"));
#define KERNEL(name, real) EXPECT(fvlrp_##name(&(fvlrp_##name##_args){0}) == FVLRP_E_ISA);
    FVLRP_KERNELS(KERNEL)
#undef KERNEL
    EXPECT(fvlrp_select("v9") == FVLRP_E_ISA && !strcmp(fvlrp_isa(), "none"));
    for (int status = -20; status < 20; status++) EXPECT(fvlrp_words(status) && *fvlrp_words(status));
    EXPECT(fvlrp_select(NULL) == FVLRP_OK && !strcmp(fvlrp_isa(), fvlrp_isa_available(0)));
    EXPECT(fvlrp_select("") == FVLRP_OK && !strcmp(fvlrp_isa(), fvlrp_isa_available(0)));
}

int main(int count, char **words) {
    const uint64_t seed = count > 1 ? strtoull(words[1], NULL, 10) : 0;
    before_a_choice();
    const char *isa;
    for (int i = 0; (isa = fvlrp_isa_available(i)); i++) {
        state = seed;
        EXPECT(fvlrp_select(isa) == FVLRP_OK && !strcmp(fvlrp_isa(), isa));
        sift();
        sift_refuses();
        mixtures();
        halves();
        mixture_refuses();
        vectors();
        splat();
        products();
        winograds();
        network_layers();
        now = "a kernel that no case calls";
#define KERNEL(name, real) EXPECT(calls_of_##name > 0); calls_of_##name = 0;
        FVLRP_KERNELS(KERNEL)
#undef KERNEL
        printf("%s: every kernel, seed %llu\n", isa, (unsigned long long)seed);
        fflush(stdout);
    }
    return 0;
}
