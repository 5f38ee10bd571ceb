/* sift_pixels.c - relevance of dense SIFT's values down to pixels, through the planes and filters of sift.c.
 *
 * With h the pooled planes and q = R / h at every bin centre, pixel p gets sum_o G_o(p) sum_c filter(p - c) q_o(c): the
 * adjoint of the pooling. All of it streams down the image: relevance is gathered from the frames onto a row of bin
 * centres, the row is divided by h, and a pixel row gathers the centres within reach. Pixels outside the image are
 * copies of the border pixel, so what they gather is the border pixel's.
 *
 * Every term q filter G that a pixel gathers is a share of one R and no larger than it, so that float is as good here as
 * it is for R. Sums over more than one pixel or one row run in double. Included by isa.c once per real type. */

typedef __typeof__((VREAL){0} > (VREAL){0}) R(mask);

/* A bin that holds less is empty: R / h must stay finite. What gradients leave in a bin is at least 1e-13. */
#if REAL_BITS == 32
#define LEAST_POOLED 1e-25f
#else
#define LEAST_POOLED 0.0
#endif

typedef struct {
    const fvlrp_scale *scale;
    sift_tracks tracks;
    sift_planes_of planes;
    ptrdiff_t next_plane;        /* rows of planes so far */
    ptrdiff_t next_centre[BINS]; /* rows of bin centres divided so far, per track */
    ptrdiff_t across, pitch;     /* octets of one track, reals of all of them, in a row of bin centres */
    ptrdiff_t depth;             /* rows of bin centres that a track's ring holds */
    ptrdiff_t plane_pitch;
    ptrdiff_t pad, padded;       /* a track's octets in `row`: `pad` zeros on either side */
    ptrdiff_t left, count;       /* first pixel column within reach of a centre; pixels of one phase */
    ptrdiff_t listed;            /* capacity of a list of weighted rows or columns */
    REAL *taps;                  /* (tracks, taps) */
    REAL *kept;                  /* ring of `taps` rows of planes, `reach` border octets repeated on either side */
    REAL *along_x;               /* ring of `taps` rows pooled along x */
    REAL *pooled, *mass;         /* h and R on one row of bin centres */
    REAL *shares;                /* (tracks along y, depth) rows of q */
    REAL *row, *out, *sums;      /* a pixel row gathered along y; one phase of it along x; that times the planes */
    double *line;                /* a pixel row from `left` on */
    float *plane;
    REAL *row_taps, *column_taps;
    const REAL **rows, **columns; /* columns: (stride, listed), what a pixel column of each phase gathers */
    ptrdiff_t *column_count;
    double lost;
} R(sift_back);

static void R(back_layout)(R(sift_back) *b, sift_block *block) {
    const sift_tracks *t = &b->tracks;
    const fvlrp_scale *s = b->scale;
    const ptrdiff_t size = sizeof(REAL), reach = t->reach, frame = 3 * s->bin_size, group = 8;
    planes_layout(&b->planes, block);
    b->across = (t->columns + 3) / 4 * 4;
    b->pitch = row_pitch(t->tracks * b->across * ORIENTATIONS, size);
    b->depth = 2 * reach / t->stride + 2;
    b->plane_pitch = row_pitch((s->width + 2 * reach + group * t->stride) * ORIENTATIONS, size);
    b->pad = (2 * reach + frame) / t->stride + 4;
    b->padded = b->across + 2 * b->pad;
    b->left = s->first - reach;
    b->count = (s->step * (s->cols - 1) + frame + 2 * reach) / t->stride + 1;
    b->listed = most(t->tracks * (t->taps / t->stride + 2), t->taps);
    const ptrdiff_t gathered = (b->count + group) * ORIENTATIONS;
    b->taps = carve(block, t->tracks * t->taps, size);
    b->kept = carve(block, t->taps, b->plane_pitch * size);
    b->along_x = carve(block, t->taps, b->pitch * size);
    b->pooled = carve(block, b->pitch, size);
    b->mass = carve(block, b->pitch, size);
    b->shares = carve(block, t->tracks * b->depth, b->pitch * size);
    b->row = carve(block, t->tracks * b->padded * ORIENTATIONS, size);
    b->out = carve(block, gathered, size);
    b->sums = carve(block, b->count + group, size);
    b->line = carve(block, (b->count + 1) * t->stride, sizeof(double));
    b->plane = carve(block, s->width * ORIENTATIONS, sizeof(float));
    b->row_taps = carve(block, b->listed, size);
    b->rows = carve(block, b->listed, sizeof(REAL *));
    b->column_taps = carve(block, t->stride * b->listed, size);
    b->columns = carve(block, t->stride * b->listed, sizeof(REAL *));
    b->column_count = carve(block, t->stride, sizeof(ptrdiff_t));
}

/* Pixel columns `stride` apart gather with the same taps: one list for each phase, of every track's columns. */
static void R(list_columns)(R(sift_back) *b, ptrdiff_t phase) {
    const sift_tracks *t = &b->tracks;
    const ptrdiff_t x = b->left + phase;
    ptrdiff_t n = phase * b->listed;
    for (ptrdiff_t track = 0; track < t->tracks; track++) {
        ptrdiff_t count, first = within_reach(t, track, x, x, &count);
        for (ptrdiff_t u = first; u < first + count; u++, n++) {
            b->columns[n] = b->row + (track * b->padded + b->pad + u) * ORIENTATIONS;
            b->column_taps[n] = b->taps[track * t->taps + x - t->start[track] - u * t->stride + t->reach];
        }
    }
    b->column_count[phase] = n - phase * b->listed;
}

static void R(back_start)(R(sift_back) *b) {
    const sift_tracks *t = &b->tracks;
    const ptrdiff_t size = sizeof(REAL);
    for (ptrdiff_t track = 0; track < t->tracks; track++)
        for (ptrdiff_t j = 0; j < t->taps; j++)
            b->taps[track * t->taps + j] = (REAL)track_tap(b->scale, track, j - t->reach);
    for (ptrdiff_t phase = 0; phase < t->stride; phase++) R(list_columns)(b, phase);
    /* What whole vectors read past the end of a row must be finite, and the gathered row's margins 0. */
    memset(b->kept, 0, (size_t)(t->taps * b->plane_pitch * size));
    memset(b->along_x, 0, (size_t)(t->taps * b->pitch * size));
    memset(b->shares, 0, (size_t)(t->tracks * b->depth * b->pitch * size));
    memset(b->row, 0, (size_t)(t->tracks * b->padded * ORIENTATIONS * size));
    memset(b->out, 0, (size_t)((b->count + 8) * ORIENTATIONS * size));
    b->next_plane = most(b->scale->first - t->reach, 0);
    planes_start(&b->planes, b->next_plane);
}

static REAL *R(share_row)(const R(sift_back) *b, ptrdiff_t track, ptrdiff_t index) {
    return b->shares + (track * b->depth + index % b->depth) * b->pitch;
}

static REAL *R(kept_row)(const R(sift_back) *b, ptrdiff_t y) { return b->kept + y % b->tracks.taps * b->plane_pitch; }

/* Planes of row y, pooled along x. */
static void R(back_plane)(R(sift_back) *b, ptrdiff_t y) {
    const sift_tracks *t = &b->tracks;
    const ptrdiff_t length = b->scale->width * ORIENTATIONS, octet = ORIENTATIONS * sizeof(REAL);
    REAL *kept = R(kept_row)(b, y), *row = kept + t->reach * ORIENTATIONS;
    planes_row(&b->planes, y, b->plane);
    for (ptrdiff_t i = 0; i < length; i++) row[i] = b->plane[i];
    for (ptrdiff_t j = 1; j <= t->reach; j++) {
        memcpy(row - j * ORIENTATIONS, row, (size_t)octet);
        memcpy(row + length + (j - 1) * ORIENTATIONS, row + length - ORIENTATIONS, (size_t)octet);
    }
    REAL *out = b->along_x + y % t->taps * b->pitch;
    for (ptrdiff_t track = 0; track < t->tracks; track++)
        R(weigh_octets)(out + track * b->across * ORIENTATIONS, kept + t->start[track] * ORIENTATIONS, t->stride,
                        b->taps + track * t->taps, t->taps, t->columns);
}

/* h on a row of bin centres. */
static void R(pool_row)(R(sift_back) *b, ptrdiff_t track, ptrdiff_t y) {
    const sift_tracks *t = &b->tracks;
    const ptrdiff_t height = b->scale->height;
    for (; b->next_plane <= least(y + t->reach, height - 1); b->next_plane++) R(back_plane)(b, b->next_plane);
    for (ptrdiff_t j = 0; j < t->taps; j++)
        b->rows[j] = b->along_x + inside(y + j - t->reach, height) % t->taps * b->pitch;
    R(weigh)(b->pooled, b->rows, b->taps + track * t->taps, t->taps, t->tracks * b->across * ORIENTATIONS);
}

/* R on a row of bin centres: from bins (iy, ...) of the frames whose bins iy lie on it. */
static void R(gather_frames)(R(sift_back) *b, ptrdiff_t track, ptrdiff_t index, const REAL *relevance) {
    const sift_tracks *t = &b->tracks;
    const fvlrp_scale *s = b->scale;
    REAL *columns[BINS];
    for (int ix = 0; ix < BINS; ix++) columns[ix] = b->mass + (t->track[ix] * b->across + t->shift[ix]) * ORIENTATIONS;
    memset(b->mass, 0, (size_t)b->pitch * sizeof(REAL));
    for (int iy = 0; iy < BINS; iy++) {
        const ptrdiff_t down = index - t->shift[iy], k = down / t->jump;
        if (t->track[iy] != track || down < 0 || down % t->jump || k >= s->rows) continue;
        const REAL *from = relevance + (k * s->cols * BINS + iy) * (BINS * ORIENTATIONS);
        for (ptrdiff_t j = 0, at = 0; j < s->cols; j++, at += t->jump * ORIENTATIONS, from += VALUES)
            UNROLL for (int ix = 0; ix < BINS; ix++) {
                REAL *to = columns[ix] + at;
                *(R(eight_any) *)to = R(load8)(to) + R(load8)(from + ix * ORIENTATIONS);
            }
    }
}

/* q = R / h on a row of bin centres; what lies where h = 0 is lost. */
static void R(divide_row)(R(sift_back) *b, ptrdiff_t track, ptrdiff_t index, const REAL *relevance) {
    const sift_tracks *t = &b->tracks;
    R(pool_row)(b, track, t->start[track] + index * t->stride);
    R(gather_frames)(b, track, index, relevance);
    REAL *share = R(share_row)(b, track, index);
    const R(mask) one = (R(mask))R(fill)(1);
    VREAL lost = {0};
    for (ptrdiff_t i = 0; i < t->tracks * b->across * ORIENTATIONS; i += LANES) {
        const VREAL h = R(load)(b->pooled + i), r = R(load)(b->mass + i);
        const R(mask) full = h > LEAST_POOLED;
        const VREAL divisor = (VREAL)(((R(mask))h & full) | (one & ~full));
        R(store)(share + i, (VREAL)((R(mask))(r / divisor) & full));
        lost += (VREAL)((R(mask))r & ~full);
    }
    for (int j = 0; j < LANES; j++) b->lost += (double)lost[j];
}

/* List the rows of bin centres that pixel row y gathers; a border row also stands for the rows outside it. */
static ptrdiff_t R(list_rows)(R(sift_back) *b, ptrdiff_t y, ptrdiff_t bottom) {
    const sift_tracks *t = &b->tracks;
    const fvlrp_scale *s = b->scale;
    const ptrdiff_t top = y == 0 ? least(s->first - t->reach, 0) : y;
    if (y == s->height - 1) bottom = most(bottom, y);
    else bottom = y;
    ptrdiff_t n = 0;
    for (ptrdiff_t track = 0; track < t->tracks; track++) {
        ptrdiff_t count, first = within_reach(t, track, top, bottom, &count);
        for (ptrdiff_t index = most(first, 0); index < first + count; index++) {
            if (!row_needed(t, index, 0, s->rows)) continue;
            const ptrdiff_t centre = t->start[track] + index * t->stride;
            const REAL *taps = b->taps + track * t->taps + t->reach - centre;
            REAL tap = 0;
            for (ptrdiff_t p = most(top, centre - t->reach); p <= least(bottom, centre + t->reach); p++) tap += taps[p];
            b->rows[n] = R(share_row)(b, track, index);
            b->row_taps[n++] = tap;
        }
    }
    return n;
}

/* Sums of octets times planes, every `stride`-th octet of which is meant: sums[m] for m < count, rounded up to 8. */
INLINE void R(times_planes)(const REAL *octets, const REAL *planes, ptrdiff_t stride, ptrdiff_t count, REAL *sums) {
    for (ptrdiff_t m = 0; m < count; m += 8) {
        REAL product[8 * ORIENTATIONS];
        UNROLL for (int i = 0; i < 8; i++)
            *(R(eight_any) *)(product + i * ORIENTATIONS) =
                R(load8)(octets + (m + i) * ORIENTATIONS) * R(load8)(planes + (m + i) * stride * ORIENTATIONS);
        R(sum_runs)(product, sums + m);
    }
}

/* Add to pixel row y what it gathers from n rows of bin centres. */
static void R(gather_row)(R(sift_back) *b, ptrdiff_t y, ptrdiff_t n, double *pixels) {
    const sift_tracks *t = &b->tracks;
    const ptrdiff_t width = b->scale->width, stride = t->stride;
    for (ptrdiff_t track = 0; track < t->tracks; track++) {
        const ptrdiff_t at = (track * b->padded + b->pad) * ORIENTATIONS;
        R(weigh)(b->row + at, b->rows, b->row_taps, n, t->columns * ORIENTATIONS);
        for (ptrdiff_t i = 0; i < n; i++) b->rows[i] += b->across * ORIENTATIONS;
    }
    const REAL *planes = R(kept_row)(b, y) + (b->left + t->reach) * ORIENTATIONS;
    for (ptrdiff_t phase = 0; phase < stride; phase++, planes += ORIENTATIONS) {
        R(weigh)(b->out, b->columns + phase * b->listed, b->column_taps + phase * b->listed, b->column_count[phase],
                 b->count * ORIENTATIONS);
        R(times_planes)(b->out, planes, stride, b->count, b->sums);
        for (ptrdiff_t m = 0; m < b->count; m++) b->line[phase + m * stride] = (double)b->sums[m];
    }
    pixels += y * width;
    const ptrdiff_t right = b->left + b->count * stride;
    ptrdiff_t x = b->left;
    const double *line = b->line;
    for (; x < 0; x++) pixels[0] += *line++;
    for (; x < least(right, width); x++) pixels[x] += *line++;
    for (; x < right; x++) pixels[width - 1] += *line++;
}

static int R(sift_pixels)(const fvlrp_scale *scale, const float *image, const void *relevance, double *pixels,
                          double *zero_bin) {
    R(sift_back) b = {.scale = scale, .tracks = sift_tracks_of(scale)};
    const int status = planes_open(&b.planes, scale, image);
    if (status) return status;
    sift_block block = {0};
    R(back_layout)(&b, &block);
    block.base = scratch(block.used, 1);
    if (!block.base) return FVLRP_E_MEMORY;
    block.used = 0;
    R(back_layout)(&b, &block);
    R(back_start)(&b);

    const sift_tracks *t = &b.tracks;
    const ptrdiff_t bottom = scale->first + scale->step * (scale->rows - 1) + 3 * scale->bin_size + t->reach;
    for (ptrdiff_t y = most(scale->first - t->reach, 0); y <= least(bottom, scale->height - 1); y++) {
        for (ptrdiff_t track = 0; track < t->tracks; track++) {
            ptrdiff_t *next = b.next_centre + track;
            const ptrdiff_t count = (scale->rows - 1) * t->jump + t->span + 1;
            for (; *next < count && t->start[track] + *next * t->stride <= y + t->reach; ++*next)
                if (row_needed(t, *next, 0, scale->rows)) R(divide_row)(&b, track, *next, relevance);
        }
        const ptrdiff_t n = R(list_rows)(&b, y, bottom);
        if (n) R(gather_row)(&b, y, n, pixels);
    }
    *zero_bin += b.lost;
    free(block.base);
    return FVLRP_OK;
}
#undef LEAST_POOLED
