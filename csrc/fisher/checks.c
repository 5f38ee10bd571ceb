/* checks.c - arguments of the Fisher vector's kernels: each is checked here and nowhere else. */
#include "checks.h"
#include "fisher/model.h"

enum { FARTHEST = 1 << 20 }; /* pixels: no sigma, bin or kernel reaches farther */

/* ---- dense SIFT ---- */

/* Whether points first + step k + spacing i, for k < count and i < bins, exceed an axis of `length` pixels. Sizes are
 * not negative, steps and bins positive; it divides, since products could overflow. */
static int beyond(ptrdiff_t length, ptrdiff_t first, ptrdiff_t step, ptrdiff_t count, ptrdiff_t spacing,
                  ptrdiff_t bins) {
    if (!count) return 0;
    if (first >= length) return 1;
    const ptrdiff_t room = length - 1 - first;
    if (bins > 1 && spacing > room / (bins - 1)) return 1;
    return count - 1 > (room - spacing * (bins - 1)) / step;
}

/* Bin centres lie inside the image; sizes cannot overflow. */
static int bad_scale(const fvlrp_scale *s) {
    if (s->height < 1 || s->width < 1 || s->rows < 0 || s->cols < 0 || s->step < 1 || s->bin_size < 1) return 1;
    if (s->first < 0 || s->bin_size > FARTHEST || !checked(s->height, s->width) || !checked(s->rows, s->cols)) return 1;
    if (!checked(s->rows * s->cols, 128 * sizeof(double)) || !checked(s->height * s->width,
                                                                      8 * sizeof(double))) return 1;
    if (beyond(s->height, s->first, s->step, s->rows, s->bin_size, 4)) return 1;
    if (beyond(s->width, s->first, s->step, s->cols, s->bin_size, 4)) return 1;
    if (s->window != FVLRP_WINDOW_FLAT && s->window != FVLRP_WINDOW_GAUSSIAN) return 1;
    if (s->angles != FVLRP_ANGLES_VLFEAT && s->angles != FVLRP_ANGLES_EXACT) return 1;
    return !(s->sigma >= 0 && s->sigma <= FARTHEST) || !(s->window_size > 0) || !(s->contrast_threshold >= 0);
}

int fvlrp_check_sift(const fvlrp_sift_args *args) {
    if (bad_scale(&args->scale) || (args->type != FVLRP_U8 && args->type != FVLRP_F32)) return FVLRP_E_ARGUMENT;
    return refused(args->begin < 0 || args->end > args->scale.rows || args->begin > args->end);
}

int fvlrp_check_sift_pixels(const fvlrp_sift_pixels_args *args) {
    return refused(bad_scale(&args->scale) || bad_real(args->real));
}

/* ---- projection and mixture ---- */

static int bad_sizes(const fvlrp_model_pack_args *args) {
    const ptrdiff_t most = 1 << 16;
    if (bad_real(args->real) || args->inputs < 0 || args->dims < 1 || args->components < 0) return 1;
    return args->inputs > most || args->dims > most || args->components > most;
}

size_t fvlrp_model_bytes(const fvlrp_model_pack_args *args) {
    arena counted = {0};
    if (bad_sizes(args)) return 0;
    model_layout(args, &counted);
    return counted.used < 0 ? 0 : (size_t)counted.used + 63;
}

int fvlrp_check_model_pack(const fvlrp_model_pack_args *args) {
    if (!args->model || !args->block || bad_sizes(args) || !(args->gate >= 0)) return FVLRP_E_ARGUMENT;
    if (args->inputs && !args->basis) return FVLRP_E_ARGUMENT;
    return refused(args->components && (!args->priors || !args->means || !args->variances));
}

static int bad_projection(const fvlrp_model *model, const fvlrp_descriptors *d) {
    return !model || !model->inputs || bad_type(d->type) || d->n < 0;
}

static int bad_mixture(const fvlrp_model *model, ptrdiff_t n) { return !model || !model->components || n < 0; }

int fvlrp_check_project(const fvlrp_project_args *args) {
    return refused(bad_projection(args->model, &args->descriptors));
}

int fvlrp_check_posteriors(const fvlrp_posteriors_args *args) {
    return refused(bad_mixture(args->model, args->n) || args->capacity < 0);
}

int fvlrp_check_pool(const fvlrp_pool_args *args) { return refused(bad_mixture(args->model, args->n)); }

int fvlrp_check_encode(const fvlrp_encode_args *args) {
    const fvlrp_descriptors *d = &args->descriptors;
    return refused(bad_projection(args->model, d) || bad_mixture(args->model, d->n) || args->capacity < 0);
}

/* ---- relevance ---- */

int fvlrp_check_tables(const fvlrp_tables_args *args) {
    return refused(bad_mixture(args->model, 0) || args->cells < 0);
}

int fvlrp_check_relevance(const fvlrp_relevance_args *args) {
    const fvlrp_model *model = args->model;
    const fvlrp_descriptors *d = &args->descriptors;
    const int values = args->bins || args->sift;
    if (bad_mixture(model, d->n) || bad_type(d->type) || args->targets < 0 || !(args->epsilon >= 0))
        return FVLRP_E_ARGUMENT;
    if (args->mean < FVLRP_MEAN_NONE || args->mean > FVLRP_MEAN_BIAS) return FVLRP_E_ARGUMENT;
    if (values && model->inputs != 128) return FVLRP_E_ARGUMENT;
    return refused(d->n && (values || args->absorbed || !args->y) && (!model->inputs || !d->x));
}

/* ---- the whole Fisher vector ---- */

int fvlrp_check_merge(const fvlrp_merge_args *args) {
    const ptrdiff_t most = 1 << 16;
    if (args->parts < 0 || args->finest < 0 || args->cells < 0 || args->components < 0 || args->dims < 0)
        return FVLRP_E_ARGUMENT;
    if (args->dims > most || args->components > most) return FVLRP_E_ARGUMENT;
    if (!checked(args->finest, (1 + 2 * args->dims) * (ptrdiff_t)sizeof(double))) return FVLRP_E_ARGUMENT;
    for (ptrdiff_t p = 0; p < args->parts; p++)
        if (args->part[p].finest < 0 || args->part[p].finest >= args->finest) return FVLRP_E_ARGUMENT;
    return FVLRP_OK;
}

/* Row r is there, and so are its entries, whose components are below K. */
static int bad_row(const fvlrp_encoded *from, int64_t r, ptrdiff_t components) {
    if (r < 0 || r >= from->rows) return 1;
    const int64_t begin = from->begin[r], end = from->end[r];
    if (begin < 0 || end < begin || end > from->entries) return 1;
    uint16_t most = 0;
    for (int64_t e = begin; e < end; e++) most = from->index[e] > most ? from->index[e] : most;
    return most >= components;
}

int fvlrp_check_exchange(const fvlrp_exchange_args *args) {
    const fvlrp_model *model = args->model;
    if (bad_mixture(model, args->n) || model->real != FVLRP_F64 || args->groups < 0 || args->levels < 0)
        return FVLRP_E_ARGUMENT;
    const ptrdiff_t K = model->components, dims = model->dims;
    if (args->cells < 0 || !checked(args->cells, K * dims)) return FVLRP_E_ARGUMENT;
    if (!checked(args->cells * (K * dims), 2 * sizeof(double))) return FVLRP_E_ARGUMENT;
    if (!checked(args->n, sizeof(int64_t)) || !checked(args->groups, args->levels)) return FVLRP_E_ARGUMENT;
    if (!checked(args->groups * args->levels, sizeof(int64_t))) return FVLRP_E_ARGUMENT;
    for (ptrdiff_t i = 0; i < args->groups * args->levels; i++)
        if (args->group_cells[i] < 0 || args->group_cells[i] >= args->cells) return FVLRP_E_ARGUMENT;
    for (ptrdiff_t i = 0; i < args->n; i++) {
        if (args->group[i] < 0 || args->group[i] >= args->groups) return FVLRP_E_ARGUMENT;
        if (bad_row(&args->before, args->rows[i], model->components)) return FVLRP_E_ARGUMENT;
        if (bad_row(&args->after, i, model->components)) return FVLRP_E_ARGUMENT;
    }
    return FVLRP_OK;
}

int fvlrp_check_roots(const fvlrp_roots_args *args) {
    const ptrdiff_t cells = args->cells, K = args->components, dims = args->dims;
    if (cells < 0 || !checked(K, dims) || !checked(cells, K * dims)) return FVLRP_E_ARGUMENT;
    return refused(!checked(cells * (K * dims), 2 * sizeof(double)));
}

int fvlrp_check_scores(const fvlrp_scores_args *args) { return refused(!checked(args->n, args->length)); }

int fvlrp_check_normalise(const fvlrp_normalise_args *args) { return refused(!checked(args->cells, args->length)); }

int fvlrp_check_normalise_intra(const fvlrp_normalise_intra_args *args) {
    const ptrdiff_t cells = args->cells, K = args->components, dims = args->dims;
    if (!checked(K, dims) || !checked(cells, K * dims) || !checked(cells * (K * dims), 2 * sizeof(double)))
        return FVLRP_E_ARGUMENT;
    return refused(cells < 0 || K < 0 || dims < 0 || !(args->least > 0));
}

int fvlrp_check_shares(const fvlrp_shares_args *args) {
    if (!checked(args->cells, args->length)) return FVLRP_E_ARGUMENT;
    for (ptrdiff_t c = 0; c < args->cells; c++)
        if (!(args->epsilon[c] >= 0)) return FVLRP_E_ARGUMENT;
    return FVLRP_OK;
}

/* ---- splat ---- */

int fvlrp_check_splat(const fvlrp_splat_args *a) {
    if (bad_real(a->real) || a->rows < 0 || a->cols < 0 || a->bins < 1 || a->spacing < 0 || a->first < 0 || a->step < 1)
        return FVLRP_E_ARGUMENT;
    if (a->length < 1 || a->length > FARTHEST || a->lead < -FARTHEST || a->lead > FARTHEST) return FVLRP_E_ARGUMENT;
    if (a->height < 1 || a->width < 1 || !checked(a->height, a->width)) return FVLRP_E_ARGUMENT;
    if (a->rows == 0 || a->cols == 0) return FVLRP_OK;
    return refused(beyond(a->height, a->first, a->step, a->rows, a->spacing, a->bins) ||
                   beyond(a->width, a->first, a->step, a->cols, a->spacing, a->bins));
}
