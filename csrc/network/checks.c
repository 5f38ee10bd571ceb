/* checks.c - arguments of the networks' kernels: each is checked here and nowhere else. */
#include "checks.h"

/* Whether a size or an offset is out of range: within it, no product of them overflows. */
static int bad_windows(const fvlrp_windows *w) {
    const ptrdiff_t most = 1 << 24;
    const ptrdiff_t sizes[] = {w->channels, w->height,   w->width,      w->kernel_y,   w->kernel_x,
                               w->stride_y, w->stride_x, w->dilation_y, w->dilation_x, w->cols};
    for (int i = 0; i < (int)(sizeof sizes / sizeof *sizes); i++)
        if (sizes[i] < 1 || sizes[i] > most) return 1;
    if (w->top < -most || w->top > most || w->left < -most || w->left > most) return 1;
    if (w->first < 0 || w->first > most || w->rows < 0 || w->rows > most) return 1;
    const size_t plane = checked(w->height, w->width);
    return !checked(w->channels, (ptrdiff_t)plane) || !checked(w->channels * (ptrdiff_t)plane, sizeof(double));
}

static int bad_weights(const fvlrp_weights *w) {
    if (w->m < 0 || w->channels < 0 || w->taps < 1 || !checked(w->channels, w->taps)) return 1;
    return w->sign < FVLRP_NEGATIVE || w->sign > FVLRP_SIZE;
}

/* Whether weights and windows have different numbers of terms. */
static int mismatch(const fvlrp_weights *weights, const fvlrp_windows *w) {
    return weights->channels != w->channels || weights->taps != w->kernel_y * w->kernel_x;
}

/* Whether the interval is empty or a bound is NaN. */
static int bad_bounds(const double *bounds) { return bounds && !(bounds[0] <= bounds[1]); }

int fvlrp_check_product(const fvlrp_product_args *args) {
    const fvlrp_weights *weights = &args->weights;
    const fvlrp_windows *w = args->windows;
    if (bad_real(args->real) || bad_weights(weights) || args->n < 0 || bad_bounds(args->bounds))
        return FVLRP_E_ARGUMENT;
    if (w && (bad_windows(w) || mismatch(weights, w) || args->n != w->rows * w->cols)) return FVLRP_E_ARGUMENT;
    if (!w && weights->channels * weights->taps > 1 && args->ldb < args->n) return FVLRP_E_ARGUMENT;
    return refused(weights->m > 1 && args->ldc < args->n);
}

int fvlrp_check_winograd(const fvlrp_winograd_args *args) {
    const fvlrp_weights *weights = &args->weights;
    const fvlrp_windows *w = &args->windows;
    const int sign = weights->sign;
    if (bad_weights(weights) || bad_windows(w) || mismatch(weights, w)) return FVLRP_E_ARGUMENT;
    if (w->kernel_y != 3 || w->kernel_x != 3 || w->stride_y != 1 || w->stride_x != 1) return FVLRP_E_ARGUMENT;
    if (w->dilation_y != 1 || w->dilation_x != 1) return FVLRP_E_ARGUMENT;
    if (args->other && (sign == FVLRP_ALL || sign == FVLRP_SIZE)) return FVLRP_E_ARGUMENT;
    const int rows = weights->m > 1;
    if (!(args->doubt >= 0 && args->doubt <= 1) || (rows && args->ldc < w->rows * w->cols)) return FVLRP_E_ARGUMENT;
    return refused(args->whole && (!(args->doubt > 0) || (rows && args->ldw < w->rows * w->cols)));
}

static int bad_groups(ptrdiff_t groups, const fvlrp_weights *weights, const fvlrp_windows *w, const void *other) {
    const ptrdiff_t most = 1 << 24;
    if (bad_weights(weights) || bad_windows(w) || groups < 1 || weights->m > most) return 1;
    if (weights->channels < 1 || w->channels % groups || w->channels / groups != weights->channels) return 1;
    if (other && (weights->sign == FVLRP_ALL || weights->sign == FVLRP_SIZE)) return 1;
    return weights->taps != w->kernel_y * w->kernel_x || !checked(groups * weights->m, w->rows * w->cols);
}

int fvlrp_check_grouped(const fvlrp_grouped_args *args) {
    if (bad_real(args->real) || bad_groups(args->groups, &args->weights, &args->windows, args->other))
        return FVLRP_E_ARGUMENT;
    if (bad_bounds(args->bounds)) return FVLRP_E_ARGUMENT;
    return refused(args->groups * args->weights.m > 1 && args->ldc < args->windows.rows * args->windows.cols);
}

int fvlrp_check_grouped_back(const fvlrp_grouped_back_args *args) {
    return refused(bad_real(args->real) || bad_groups(args->groups, &args->weights, &args->windows, args->other));
}

int fvlrp_check_alive(const fvlrp_alive_args *args) {
    return refused(bad_real(args->real) || args->targets < 0 || !checked(args->m, args->n));
}

int fvlrp_check_grouped_alpha_beta(const fvlrp_grouped_alpha_beta_args *args) {
    const fvlrp_windows *w = &args->windows;
    if (bad_real(args->real) || bad_groups(args->groups, &args->weights, w, NULL)) return FVLRP_E_ARGUMENT;
    const size_t outputs = checked(args->groups * args->weights.m, w->rows * w->cols);
    const size_t inputs = checked(w->channels, w->height * w->width), most = outputs > inputs ? outputs : inputs;
    if (!checked(args->targets, (ptrdiff_t)most) || !checked(args->targets * (ptrdiff_t)most, 4 * sizeof(double)))
        return FVLRP_E_ARGUMENT;
    return refused(!(args->alpha >= 0 && args->beta >= 0));
}

static int bad_outputs(const fvlrp_outputs *o) {
    if (bad_real(o->real) || o->count < 0 || !checked(o->m, o->n) || !checked(o->m * o->n, sizeof(double))) return 1;
    for (ptrdiff_t i = 0; i < o->count; i++)
        if (o->rows[i] < 0 || o->rows[i] >= o->m) return 1;
    return 0;
}

int fvlrp_check_dense_sums(const fvlrp_dense_sums_args *args) { return refused(bad_outputs(&args->outputs)); }

int fvlrp_check_dense_back(const fvlrp_dense_back_args *args) {
    return refused(bad_outputs(&args->outputs) || !checked(args->targets, args->outputs.n));
}

int fvlrp_check_dense_alpha_beta(const fvlrp_dense_alpha_beta_args *args) {
    if (bad_outputs(&args->outputs) || !checked(args->targets, args->outputs.n)) return FVLRP_E_ARGUMENT;
    return refused(!(args->alpha >= 0 && args->beta >= 0));
}

int fvlrp_check_alpha_beta(const fvlrp_alpha_beta_args *args) {
    const int rows = args->m > 1;
    if (bad_real(args->real) || args->targets < 0 || args->capacity < 0) return FVLRP_E_ARGUMENT;
    if (!checked(args->targets, 2) || !checked(args->targets * 2, args->m) || !checked(args->m, args->n))
        return FVLRP_E_ARGUMENT;
    if (!(args->alpha >= 0 && args->beta >= 0 && args->weak >= 0)) return FVLRP_E_ARGUMENT;
    if (args->beta > 0 && !args->z && !args->negative) return FVLRP_E_ARGUMENT;
    if (args->gamma >= 0 && !args->z) return FVLRP_E_ARGUMENT;
    return refused(rows && (args->ldr < args->n || (args->z && args->ldz < args->n)));
}

int fvlrp_check_max_pool(const fvlrp_max_pool_args *args) {
    return refused(bad_real(args->real) || bad_windows(&args->windows));
}

int fvlrp_check_max_pool_back(const fvlrp_max_pool_back_args *args) {
    return refused(bad_real(args->real) || bad_windows(&args->windows) || args->targets < 0);
}

int fvlrp_check_join(const fvlrp_join_args *args) {
    if (bad_real(args->real) || args->count < 1 || args->count > FVLRP_MOST_TERMS) return FVLRP_E_ARGUMENT;
    return refused(args->n < 0 || !checked(args->targets, args->n) || !(args->alpha >= 0 && args->beta >= 0));
}

int fvlrp_check_activate(const fvlrp_activate_args *args) {
    return refused(bad_real(args->real) || args->function < 0 || args->function >= FVLRP_FUNCTIONS || args->n < 0);
}

int fvlrp_check_softmax(const fvlrp_softmax_args *args) {
    return refused(bad_real(args->real) || !checked(args->n, args->length));
}

int fvlrp_check_layer_norm(const fvlrp_layer_norm_args *args) {
    return refused(bad_real(args->real) || !checked(args->n, args->length) || !(args->epsilon >= 0));
}
