/* kernels.c - every kernel of csrc/fvlrp.h on whatever shapes, options and values libFuzzer thinks of.
 *
 * An input is read as numbers: which kernel, on which instruction set, then its sizes, options and values. Sizes are
 * small and arrays exactly as long as they say, or hostile, and then the argument check alone is called: it must not
 * overflow, whatever it says. A call that passes the check must return FVLRP_OK, and may touch nothing but its arrays;
 * NaN, infinities and denormal numbers are values like others. See .ci/fuzz.sh. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "kernels.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* ---- an input as numbers ----------------------------------------------------------------------------------------- */

static const uint8_t *input;
static size_t left;
static int hostile;

static uint64_t number(size_t bytes) {
    uint64_t value = 0;
    for (; bytes && left; bytes--, left--) value = value << 8 | *input++;
    return value;
}
static ptrdiff_t below(ptrdiff_t n) { return (ptrdiff_t)number(1) % n; }

/* A size or an option: 0 .. most, now and then what no check may let pass, or overflow by. */
static ptrdiff_t some(ptrdiff_t most) {
    static const ptrdiff_t odd[] = {-1, PTRDIFF_MAX, PTRDIFF_MIN, 1 << 16, 1 << 20, (ptrdiff_t)1 << 31,
                                    (ptrdiff_t)1 << 62, PTRDIFF_MAX / 2, PTRDIFF_MAX / 8, -(1 << 20)};
    const uint64_t byte = number(1);
    if (byte < 250) return (ptrdiff_t)byte % (most + 1);
    hostile = 1;
    return byte == 255 ? (ptrdiff_t)number(8) : odd[number(1) % (sizeof odd / sizeof *odd)];
}

/* Likewise, of an array that the check itself reads: only what it must refuse before reading may exceed `most`. */
static ptrdiff_t some_read(ptrdiff_t most) {
    const ptrdiff_t size = some(most);
    return size > most ? PTRDIFF_MAX : size;
}
static ptrdiff_t sane(ptrdiff_t size) { return size < 0 || size == PTRDIFF_MAX ? 0 : size; }

static ptrdiff_t from(ptrdiff_t least, ptrdiff_t most) {
    const ptrdiff_t size = some(most - least);
    return hostile ? size : least + size;
}

static double value(void) {
    static const double odd[] = {0, -0.0, NAN, INFINITY, -INFINITY, 1e-310, 1e-40, 3e38, -3e38, 1e300, 1e-6, 255.5};
    const int byte = (int)number(1);
    if (byte < 240) return (byte - 100) / 40.0;
    return odd[byte % (int)(sizeof odd / sizeof *odd)];
}

static void *blocks[256];
static int held;

static void *bytes(size_t count) {
    if (held == 256) abort();
    return blocks[held++] = malloc(count ? count : 1);
}

/* Values of a type; each of the input's is used for a run, so that large arrays are not all zeros. */
static void *values(int type, ptrdiff_t count) {
    char *array = bytes((size_t)(count * type));
    double pattern[8];
    for (int i = 0; i < 8; i++) pattern[i] = value();
    for (ptrdiff_t i = 0; i < count; i++) {
        const double v = pattern[(i + i / 7) % 8];
        const float narrow = (float)v;
        const uint8_t byte = (uint8_t)(v > 0 && v < 256 ? v * 40 > 255 ? 255 : v * 40 : 0);
        if (type == FVLRP_U8) memcpy(array + i, &byte, 1);
        if (type == FVLRP_F32) memcpy(array + i * 4, &narrow, 4);
        if (type == FVLRP_F64) memcpy(array + i * 8, &v, 8);
    }
    return array;
}
static void *maybe(int type, ptrdiff_t count) { return number(1) & 1 ? values(type, count) : NULL; }
static double *doubles(ptrdiff_t count) { return values(FVLRP_F64, count); }
static double *positive(ptrdiff_t count) {
    double *array = doubles(count);
    for (ptrdiff_t i = 0; i < count; i++) array[i] = array[i] > 1e-6 && array[i] < 1e6 ? array[i] : 1;
    return array;
}
static int64_t *indices(ptrdiff_t count, ptrdiff_t limit) {
    int64_t *array = bytes((size_t)count * 8);
    for (ptrdiff_t i = 0; i < count; i++) array[i] = limit ? below(256) % limit : 0;
    return array;
}
/* Indices as above, now and then one that the check must refuse. */
static int64_t *wild(ptrdiff_t count, ptrdiff_t limit) {
    static const int64_t odd[] = {-1, INT64_MAX, INT64_MIN, 1 << 16};
    int64_t *array = indices(count, limit);
    if (count && !below(16)) array[below(256) % count] = below(2) ? limit : odd[below(4)];
    return array;
}
static int real(void) { return number(1) & 1 ? FVLRP_F32 : FVLRP_F64; }

/* The check, and where it passes and nothing was hostile, the kernel: `prepare` makes the arrays. */
#define CALL(name, prepare)                                                                                          \
    do {                                                                                                             \
        if (hostile) {                                                                                               \
            (void)fvlrp_check_##name(&a);                                                                            \
            return;                                                                                                  \
        }                                                                                                            \
        prepare;                                                                                                     \
        const int checked_ = fvlrp_check_##name(&a), status_ = fvlrp_##name(&a);                                     \
        if (checked_ ? status_ != checked_ : status_ != FVLRP_OK && status_ != FVLRP_E_FULL) abort();                \
    } while (0)

/* ---- SIFT and splat ---------------------------------------------------------------------------------------------- */

static fvlrp_scale scale(void) {
    fvlrp_scale s = {.height = from(1, 41), .width = from(1, 41), .first = some(9), .step = some(6),
                     .bin_size = some(8), .window = (int)below(3), .angles = (int)below(3)};
    s.rows = some(5), s.cols = some(5);
    if (s.step > 0 && s.bin_size > 0 && below(8) && !hostile) { /* most grids lie inside the image */
        const ptrdiff_t y = s.height - 1 - s.first - 3 * s.bin_size, x = s.width - 1 - s.first - 3 * s.bin_size;
        s.rows = y < 0 ? 0 : y / s.step + 1, s.cols = x < 0 ? 0 : x / s.step + 1;
    }
    s.sigma = below(8) ? below(8) / 4.0 : value();
    s.window_size = below(8) ? 1.5 : value();
    s.contrast_threshold = below(8) ? 0.005 : value();
    if (s.sigma > 20 && s.sigma <= 1 << 20) hostile = 1; /* allowed, and too slow here */
    return s;
}

static void sift(void) {
    fvlrp_sift_args a = {.scale = scale(), .type = (int)below(2) ? FVLRP_U8 : FVLRP_F32};
    a.begin = below(4) ? 0 : some(5), a.end = below(4) ? a.scale.rows : some(5);
    const ptrdiff_t n = hostile ? 0 : a.scale.rows * a.scale.cols;
    CALL(sift, a.image = values(FVLRP_F32, a.scale.height * a.scale.width); a.values = bytes((size_t)(n * 128 * a.type));
         a.zeroed = maybe(FVLRP_U8, n));
}

static void sift_pixels(void) {
    fvlrp_sift_pixels_args a = {.scale = scale(), .real = real(), .zero_bin = doubles(1)};
    CALL(sift_pixels, a.image = values(FVLRP_F32, a.scale.height * a.scale.width);
         a.relevance = values(a.real, a.scale.rows * a.scale.cols * 128);
         a.pixels = doubles(a.scale.height * a.scale.width));
}

static void splat(void) {
    fvlrp_splat_args a = {.real = real(), .rows = some(6), .cols = some(6), .bins = below(2) ? 4 : some(5),
                          .spacing = some(6), .first = some(6), .step = some(5), .length = some(16), .lead = from(-10, 10),
                          .height = some(40), .width = some(40)};
    CALL(splat, a.values = values(a.real, a.rows * a.cols * a.bins * a.bins); a.weight_y = doubles(a.rows * a.bins);
         a.weight_x = doubles(a.cols * a.bins); a.taps = doubles(a.length); a.pixels = doubles(a.height * a.width));
}

/* ---- mixture, encoding, relevance -------------------------------------------------------------------------------- */

static void mixture(void) {
    fvlrp_model model;
    fvlrp_model_pack_args a = {.real = real(), .inputs = below(2) ? 128 : some(40), .dims = some(20),
                               .components = some(20), .gate = below(4) ? 1e-6 : value(), .model = &model};
    if (hostile) {
        (void)fvlrp_model_bytes(&a);
        return;
    }
    if (a.components > 16) a.components += 50; /* enough for posteriors to be screened first */
    const ptrdiff_t K = a.components, D = a.dims, n = below(70);
    a.basis = doubles(D * a.inputs), a.mean = maybe(FVLRP_F64, a.inputs);
    a.priors = positive(K), a.means = doubles(K * D), a.variances = positive(K * D);
    const size_t room = fvlrp_model_bytes(&a);
    a.block = bytes(room);
    const int checked = fvlrp_check_model_pack(&a);
    if ((fvlrp_model_pack(&a) == FVLRP_OK) != (checked == FVLRP_OK)) abort();
    if (checked) return;

    static const int types[] = {FVLRP_U8, FVLRP_F32, FVLRP_F64};
    const int type = types[below(3)];
    const ptrdiff_t total = n + below(4);
    const fvlrp_descriptors x = {type, values(type, total * a.inputs), below(2) ? indices(n, total) : NULL, n};
    if (!total && x.rows) return;
    const ptrdiff_t capacity = n * K, R = a.real, S = model.stride;
    void *y = bytes((size_t)(n * S * R));
    memset(y, 0, (size_t)(n * S * R));
    const fvlrp_csr csr = {bytes((size_t)(n + 1) * 8), bytes((size_t)capacity * 2), bytes((size_t)(capacity * R))};
    memset(csr.indptr, 0, (size_t)(n + 1) * 8);
    const fvlrp_moments moments = {doubles(K), doubles(K * D), doubles(K * D)};
    ptrdiff_t done = 0;
    if (!a.inputs && K && D) { /* a mixture alone */
        const char *given = values((int)R, n * D);
        for (ptrdiff_t i = 0; i < n; i++) memcpy((char *)y + i * S * R, given + i * D * R, (size_t)(D * R));
        const ptrdiff_t room_for = below(3) ? capacity : below(100) % (capacity + 1);
        fvlrp_posteriors_args p = {&model, y, n, csr, room_for, maybe(FVLRP_F64, n), &done};
        const int status = fvlrp_posteriors(&p);
        if (status != FVLRP_OK && status != FVLRP_E_FULL) abort();
        if (done < 0 || done > n) abort();
        fvlrp_pool_args q = {&model, y, done, csr, moments};
        if (fvlrp_pool(&q) != FVLRP_OK) abort();
        return;
    }
    if (!a.inputs) return;
    fvlrp_project_args project = {&model, x, y};
    if (fvlrp_project(&project) != FVLRP_OK) abort();
    if (!K) return;
    fvlrp_encode_args encode = {&model, x, y, csr, capacity, moments, &done};
    if (fvlrp_encode(&encode) != FVLRP_OK || done != n || csr.indptr[n] > capacity) abort();

    const ptrdiff_t cells = below(4), targets = below(10), pitch = total + below(3);
    void *tables = bytes((size_t)(targets * K * 3 * S * R));
    for (ptrdiff_t t = 0; t < targets; t++) {
        fvlrp_tables_args to = {&model, cells, doubles(cells * 2 * K * D), values(FVLRP_U8, cells), a.priors, a.means,
                                positive(K * D), (char *)tables + t * K * 3 * S * R};
        if (fvlrp_tables(&to) != FVLRP_OK) abort();
    }
    fvlrp_relevance_args back = {.model = &model, .descriptors = x, .y = below(2) ? y : NULL, .csr = csr,
                                 .targets = targets, .tables = tables, .epsilon = below(4) ? 100 : value(),
                                 .mean = (int)below(4), .pitch = pitch, .total = maybe(FVLRP_F64, targets * pitch),
                                 .pca = maybe((int)R, targets * pitch * D), .bins = maybe((int)R, targets * pitch * 16),
                                 .sift = maybe((int)R, targets * pitch * 128), .absorbed = maybe(FVLRP_F64, targets),
                                 .bias = maybe(FVLRP_F64, targets)};
    const int status = fvlrp_check_relevance(&back);
    if (fvlrp_relevance(&back) != status) abort();
}

static void merge(void) {
    fvlrp_merge_args a = {.parts = below(6), .finest = some(5), .cells = some(5), .components = some(9), .dims = some(20)};
    fvlrp_part parts[6];
    for (ptrdiff_t p = 0; p < a.parts; p++) {
        const ptrdiff_t K = hostile ? 0 : a.components, D = hostile ? 0 : a.dims;
        parts[p] = (fvlrp_part){below(6), value(), {doubles(K), doubles(K * D), doubles(K * D)}};
    }
    a.part = parts;
    CALL(merge, a.member = values(FVLRP_U8, a.finest * a.cells); a.priors = positive(a.components);
         a.sums = doubles(a.cells * 2 * a.components * a.dims); a.occupancy = doubles(a.cells * a.components));
}

static fvlrp_encoded encoded(ptrdiff_t rows, ptrdiff_t entries, ptrdiff_t components, ptrdiff_t stride) {
    int64_t *begin = wild(rows, entries + 1), *end = wild(rows, entries + 1), *which = wild(entries, components);
    for (ptrdiff_t r = 0; r < rows; r++) /* most rows have their entries in order */
        if (begin[r] > end[r] && below(16)) end[r] = begin[r];
    uint16_t *index = bytes((size_t)entries * 2);
    for (ptrdiff_t e = 0; e < entries; e++) index[e] = (uint16_t)which[e];
    return (fvlrp_encoded){rows, entries, values(FVLRP_F32, rows * stride), begin, end, index, values(FVLRP_F32, entries)};
}

static void exchange(void) {
    fvlrp_model model;
    const ptrdiff_t K = 1 + below(9), D = 1 + below(below(4) ? 40 : 170); /* beyond 160, columns in two passes */
    fvlrp_model_pack_args pack = {.real = below(8) ? FVLRP_F64 : FVLRP_F32, .dims = D, .components = K, .gate = 1e-6,
                                  .priors = positive(K), .means = doubles(K * D), .variances = positive(K * D),
                                  .model = &model};
    pack.block = bytes(fvlrp_model_bytes(&pack));
    if (fvlrp_model_pack(&pack) != FVLRP_OK) abort();
    fvlrp_exchange_args a = {.model = &model, .n = some_read(9), .groups = some_read(4), .levels = some_read(3),
                             .cells = some(5), .priors = pack.priors};
    const ptrdiff_t n = sane(a.n), cells = hostile ? 0 : a.cells, before = below(12);
    a.group_cells = wild(sane(a.groups) * sane(a.levels), hostile ? 5 : cells);
    a.rows = wild(n, before), a.group = wild(n, sane(a.groups));
    a.before = encoded(before, below(30), K, model.stride), a.after = encoded(n + below(2), below(30), K, model.stride);
    CALL(exchange, a.sums = doubles(cells * 2 * K * D); a.stale = values(FVLRP_U8, cells * K));
}

static void roots(void) {
    fvlrp_roots_args a = {.cells = some(5), .components = some(9), .dims = some(40)};
    const ptrdiff_t blocks = hostile ? 0 : a.cells * a.components, length = hostile ? 0 : blocks * 2 * a.dims;
    CALL(roots, a.sums = doubles(length); a.coef = values(FVLRP_F32, length); a.stale = values(FVLRP_U8, blocks);
         a.squares = doubles(blocks); a.sizes = doubles(blocks); a.products = doubles(blocks));
}

static void scores(void) {
    fvlrp_scores_args a = {.n = some(9), .length = below(2) ? some(200) : from(2040, 2060)};
    CALL(scores, a.coef = values(FVLRP_F32, a.n * a.length); a.x = values(FVLRP_F32, a.length); a.out = doubles(a.n));
}

static void normalise(void) {
    fvlrp_normalise_args a = {.cells = some(9), .length = some(90)};
    CALL(normalise, a.sums = doubles(a.cells * a.length); a.x = doubles(a.cells * a.length));
}

static void normalise_intra(void) {
    fvlrp_normalise_intra_args a = {some(5), some(7), some(20), below(4) ? 1 : value(), NULL, NULL};
    CALL(normalise_intra, a.sums = doubles(a.cells * 2 * a.components * a.dims);
         a.x = doubles(a.cells * 2 * a.components * a.dims));
}

static void shares(void) {
    fvlrp_shares_args a = {.cells = below(9), .length = some(60)};
    a.epsilon = doubles(a.cells);
    CALL(shares, a.relevance = doubles(a.cells * a.length); a.sums = doubles(a.cells * a.length);
         a.counts = indices(a.cells, 3); a.spread = maybe(FVLRP_F64, a.cells * a.length);
         a.out = doubles(a.cells * a.length); a.ledger = doubles(3));
}

/* ---- networks ---------------------------------------------------------------------------------------------------- */

static fvlrp_windows windows(void) {
    return (fvlrp_windows){some(4), some(12), some(12), some(4), some(4), some(3), some(3), some(3), some(3),
                           from(-2, 4), from(-2, 4), below(3) ? 0 : some(3), some(6), some(6)};
}

static fvlrp_weights weights(int type, ptrdiff_t m, ptrdiff_t channels, ptrdiff_t taps) {
    fvlrp_weights w = {NULL, m, channels, taps, 0, 0, 0, (int)below(4) - 1};
    if (hostile) return w;
    w.tap = 1, w.channel = taps, w.row = channels * taps;
    w.a = values(type, m * channels * taps);
    return w;
}

static void product(void) {
    const int type = real();
    fvlrp_windows w = windows();
    const int of_windows = (int)below(2);
    const ptrdiff_t m = some(20), n = of_windows && !hostile ? w.rows * w.cols : some(40);
    fvlrp_product_args a = {.real = type, .n = n, .add = (int)below(2)};
    a.weights = of_windows ? weights(type, m, w.channels, hostile ? 1 : w.kernel_y * w.kernel_x)
                           : weights(type, m, some(9), some(5));
    a.ldb = n, a.ldc = n, a.windows = of_windows ? &w : NULL;
    CALL(product, const ptrdiff_t k = a.weights.channels * a.weights.taps;
         a.b = values(type, of_windows ? w.channels * w.height * w.width : k * n); a.bias = maybe(type, m);
         a.c = values(type, m * n));
}

static void winograd(void) {
    fvlrp_windows w = windows();
    if (below(8)) w.kernel_y = w.kernel_x = 3, w.stride_y = w.stride_x = w.dilation_y = w.dilation_x = 1;
    fvlrp_winograd_args a = {.windows = w, .add = (int)below(2), .doubt = below(2) ? 0 : value()};
    a.weights = weights(FVLRP_F32, some(20), w.channels, 9);
    const ptrdiff_t m = a.weights.m, n = hostile ? 0 : w.rows * w.cols, pixels = hostile ? 0 : w.channels * w.height * w.width;
    a.ldw = a.ldc = n;
    CALL(winograd, a.image = values(FVLRP_F32, pixels); a.other = maybe(FVLRP_F32, pixels); a.bias = maybe(FVLRP_F32, m);
         a.whole = maybe(FVLRP_F32, m * n); a.c = values(FVLRP_F32, m * n));
}

static void grouped(void) {
    const int type = real(), back = (int)below(3);
    fvlrp_windows w = windows();
    ptrdiff_t groups = some(3), m = some(4), inputs = some(3);
    if (!hostile && below(2)) { /* depthwise, which has loops of its own */
        m = inputs = 1;
        w.kernel_y = w.kernel_x = 3 + 2 * below(3), w.stride_y = w.stride_x = 1 + below(2);
        w.dilation_y = w.dilation_x = 1;
    }
    if (!hostile) w.channels = groups * inputs;
    const ptrdiff_t taps = hostile ? 1 : w.kernel_y * w.kernel_x, n = hostile ? 0 : w.rows * w.cols;
    fvlrp_weights own = weights(type, m, inputs, taps);
    const ptrdiff_t group = hostile ? 1 : m * inputs * taps, pixels = hostile ? 0 : w.channels * w.height * w.width;
    if (!hostile) own.a = values(type, groups * group);
    if (back == 2) {
        fvlrp_grouped_alpha_beta_args a = {.real = type, .groups = groups, .group = group, .weights = own, .windows = w,
                                           .targets = some(3), .alpha = value(), .beta = value(), .gamma = value()};
        const ptrdiff_t targets = hostile ? 0 : a.targets;
        CALL(grouped_alpha_beta, a.x = values(type, pixels); a.bias = maybe(type, groups * m);
             a.r = values(type, targets * groups * m * n); a.z = values(type, groups * m * n);
             a.out = values(type, targets * pixels); a.kept = doubles(targets); a.lost = doubles(targets));
        return;
    }
    if (back) {
        fvlrp_grouped_back_args a = {type, groups, group, own, w, NULL, NULL, NULL};
        CALL(grouped_back, a.share = values(type, groups * m * n); a.other = maybe(type, groups * m * n);
             a.out = values(type, pixels));
        return;
    }
    fvlrp_grouped_args a = {type, groups, group, own, w, NULL, NULL, NULL, (int)below(2), NULL, n};
    CALL(grouped, a.image = values(type, pixels); a.other = maybe(type, pixels); a.bias = maybe(type, groups * m);
         a.c = values(type, groups * m * n));
}

static void pools(void) {
    fvlrp_max_pool_args a = {real(), windows(), NULL, NULL};
    const ptrdiff_t targets = some(3);
    const fvlrp_windows *w = &a.windows;
    const ptrdiff_t cells = hostile ? 0 : w->channels * w->rows * w->cols, pixels = hostile ? 0 : w->channels * w->height * w->width;
    CALL(max_pool, a.image = values(a.real, pixels); a.out = values(a.real, cells));
    fvlrp_max_pool_back_args b = {a.real, a.windows, a.image, a.out, targets, values(a.real, targets * cells),
                                  values(a.real, targets * pixels)};
    const int checked = fvlrp_check_max_pool_back(&b);
    if (fvlrp_max_pool_back(&b) != checked) abort();
}

static void dense(void) {
    fvlrp_outputs o = {.real = real(), .m = some(20), .n = some(40), .count = some(9)};
    const ptrdiff_t targets = some(9);
    if (hostile) {
        o.count = 0;
        fvlrp_dense_sums_args a = {.outputs = o};
        (void)fvlrp_check_dense_sums(&a);
        return;
    }
    const int R = o.real;
    o.weight = values(R, o.m * o.n), o.rows = indices(o.count, o.m);
    if (!o.m) o.count = 0;
    fvlrp_dense_sums_args a = {o, values(R, o.n), maybe(R, o.n), values(R, o.count), values(R, o.count)};
    const int first = fvlrp_check_dense_sums(&a);
    if (fvlrp_dense_sums(&a) != first) abort();
    fvlrp_dense_back_args b = {o, targets, values(R, targets * o.count), values(R, targets * o.count),
                               values(R, targets * o.n), maybe(R, targets * o.n)};
    const int second = fvlrp_check_dense_back(&b);
    if (fvlrp_dense_back(&b) != second) abort();
    fvlrp_dense_alpha_beta_args c = {o, a.above, a.below, maybe(R, o.count), targets, values(R, targets * o.count),
                                     value(), value(), values(R, targets * o.n), values(R, targets * o.n),
                                     doubles(targets), doubles(targets)};
    const int third = fvlrp_check_dense_alpha_beta(&c);
    if (fvlrp_dense_alpha_beta(&c) != third) abort();
}

static void alpha_beta(void) {
    ptrdiff_t count = 0;
    fvlrp_alpha_beta_args a = {.real = real(), .targets = some(4), .m = some(6), .n = some(40), .alpha = value(),
                               .beta = below(2) ? 0 : value(), .weak = value(), .capacity = some(30), .count = &count};
    a.ldr = a.ldz = a.n;
    a.pitch = hostile ? 0 : a.m * a.n;
    const ptrdiff_t all = hostile ? 0 : a.targets * a.m * a.n, one = hostile ? 0 : a.m * a.n;
    CALL(alpha_beta, a.r = values(a.real, all); a.z = values(a.real, one); a.positive = values(a.real, one);
         a.up = values(a.real, all); a.down = values(a.real, all); a.kept = doubles(2 * a.targets * a.m);
         a.lost = doubles(a.targets); a.doubtful = bytes((size_t)a.capacity * 8); a.negative = maybe(a.real, one));
}

static void alive(void) {
    fvlrp_alive_args a = {.real = real(), .targets = some(4), .m = some(6), .n = some(70)};
    a.pitch = hostile ? 0 : a.m * a.n;
    const ptrdiff_t all = hostile ? 0 : a.targets * a.m * a.n;
    CALL(alive, a.r = values(a.real, all); a.alive = bytes((size_t)a.m));
}

static void join(void) {
    fvlrp_join_args a = {.real = real(), .count = some(8), .targets = some(4), .n = some(50), .alpha = value(),
                         .beta = value(), .gamma = value()};
    const ptrdiff_t n = hostile ? 0 : a.n, targets = hostile ? 0 : a.targets;
    for (ptrdiff_t i = 0; !hostile && i < a.count; i++)
        a.terms[i] = values(a.real, n), a.out[i] = values(a.real, targets * n);
    CALL(join, a.r = values(a.real, targets * n));
}

static void rows(void) {
    const int R = real(), which = (int)below(3);
    const ptrdiff_t n = some(8), length = some(70), all = hostile ? 0 : n * length;
    if (which == 0) {
        fvlrp_activate_args a = {R, (int)below(FVLRP_FUNCTIONS + 1), length, NULL, NULL};
        CALL(activate, a.x = values(R, length); a.out = values(R, length));
    } else if (which == 1) {
        fvlrp_softmax_args a = {R, n, length, NULL, NULL};
        CALL(softmax, a.x = values(R, all); a.out = values(R, all));
    } else {
        fvlrp_layer_norm_args a = {.real = R, .n = n, .length = length, .epsilon = value(), .root_mean_square = (int)below(2)};
        CALL(layer_norm, a.x = values(R, all); a.weight = maybe(R, length); a.bias = maybe(R, length);
             a.out = values(R, all); a.mean = maybe(FVLRP_F64, n); a.inverse = maybe(FVLRP_F64, n));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static void (*const kernels[])(void) = {sift, sift_pixels, splat, mixture, mixture, mixture, merge, scores,
                                            normalise, normalise_intra, shares, product, winograd, grouped, pools, dense,
                                            alpha_beta, alive, join, rows, exchange, roots};
    static int isas;
    if (!isas)
        while (fvlrp_isa_available(isas)) isas++;
    input = data, left = size, hostile = 0, held = 0;
    const ptrdiff_t kernel = below(sizeof kernels / sizeof *kernels);
    fvlrp_select(fvlrp_isa_available((int)below(isas)));
    kernels[kernel]();
    while (held) free(blocks[--held]);
    return 0;
}
