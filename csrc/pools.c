/* pools.c - maxima over the windows of an image, and relevance back to where each was found; included once per real
 * type. */

/* What is not a number wins. */
INLINE REAL R(greater)(REAL a, REAL b) { return ((b > a) | (b != b)) ? b : a; }

/* out[o] = max(out[o], line[o stride]) for whole runs, with strides that the compiler knows. */
INLINE void R(pool_tap)(const REAL *line, ptrdiff_t stride, ptrdiff_t count, REAL *out) {
    if (stride == 1)
        for (ptrdiff_t o = 0; o < count; o++) out[o] = R(greater)(out[o], line[o]);
    else if (stride == 2)
        for (ptrdiff_t o = 0; o < count; o++) out[o] = R(greater)(out[o], line[2 * o]);
    else
        for (ptrdiff_t o = 0; o < count; o++) out[o] = R(greater)(out[o], line[stride * o]);
}

/* Outputs [*begin, *end) of `count` whose tap `offset` from their start lies among `length` inputs. */
INLINE void R(pool_reach)(ptrdiff_t length, ptrdiff_t count, ptrdiff_t offset, ptrdiff_t stride, ptrdiff_t *begin,
                          ptrdiff_t *end) {
    *begin = R(first_inside)(offset, stride);
    *end = length > offset ? (length - 1 - offset) / stride + 1 : 0;
    if (*end > count) *end = count;
}

static int R(max_pool)(const fvlrp_windows *w, const void *from, void *to) {
    REAL *line = scratch(w->width, sizeof(REAL)), *out = to;
    if (!line) return FVLRP_E_MEMORY;
    for (ptrdiff_t c = 0; c < w->channels; c++)
        for (ptrdiff_t o = 0; o < w->rows; o++, out += w->cols) {
            const REAL *most = NULL; /* of the rows so far */
            for (ptrdiff_t ky = 0; ky < w->kernel_y; ky++) {
                const ptrdiff_t y = (w->first + o) * w->stride_y + ky * w->dilation_y - w->top;
                if (y < 0 || y >= w->height) continue;
                const REAL *row = (const REAL *)from + (c * w->height + y) * w->width;
                for (ptrdiff_t x = 0; most && x < w->width; x++) line[x] = R(greater)(most[x], row[x]);
                most = most ? line : row;
            }
            for (ptrdiff_t x = 0; x < w->cols; x++) out[x] = -(REAL)INFINITY;
            if (!most) continue;
            for (ptrdiff_t kx = 0; kx < w->kernel_x; kx++) {
                const ptrdiff_t offset = kx * w->dilation_x - w->left;
                ptrdiff_t begin, end;
                R(pool_reach)(w->width, w->cols, offset, w->stride_x, &begin, &end);
                if (begin < end) R(pool_tap)(most + begin * w->stride_x + offset, w->stride_x, end - begin, out + begin);
            }
        }
    free(line);
    return FVLRP_OK;
}

/* Where in its channel the first pixel of a window lies that equals `top`, or -1. */
INLINE ptrdiff_t R(pool_winner)(const fvlrp_windows *w, const REAL *channel, ptrdiff_t oy, ptrdiff_t ox, REAL top) {
    for (ptrdiff_t ky = 0; ky < w->kernel_y; ky++) {
        const ptrdiff_t y = (w->first + oy) * w->stride_y + ky * w->dilation_y - w->top;
        if (y < 0 || y >= w->height) continue;
        for (ptrdiff_t kx = 0; kx < w->kernel_x; kx++) {
            const ptrdiff_t x = ox * w->stride_x + kx * w->dilation_x - w->left;
            if (x >= 0 && x < w->width && channel[y * w->width + x] == top) return y * w->width + x;
        }
    }
    return -1;
}

static int R(max_pool_back)(const fvlrp_windows *w, const void *from, const void *maxima, ptrdiff_t targets,
                            const void *relevance, void *to) {
    const ptrdiff_t plane = w->height * w->width, cells = w->rows * w->cols;
    for (ptrdiff_t c = 0; c < w->channels; c++)
        for (ptrdiff_t oy = 0; oy < w->rows; oy++)
            for (ptrdiff_t ox = 0; ox < w->cols; ox++) {
                const ptrdiff_t at = c * cells + oy * w->cols + ox;
                const REAL *r = (const REAL *)relevance + at;
                int any = 0;
                for (ptrdiff_t t = 0; t < targets; t++) any |= r[t * w->channels * cells] != 0;
                if (!any) continue;
                const ptrdiff_t i = R(pool_winner)(w, (const REAL *)from + c * plane, oy, ox, ((const REAL *)maxima)[at]);
                for (ptrdiff_t t = 0; i >= 0 && t < targets; t++)
                    ((REAL *)to)[(t * w->channels + c) * plane + i] += r[t * w->channels * cells];
            }
    return FVLRP_OK;
}
