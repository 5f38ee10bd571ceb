/* sift_pixels.inc.c - relevance of dense SIFT's values down to pixels, through the planes and filters of SIFT.
 *
 * With h the pooled planes and q = R / h at every bin centre, pixel p gets sum_o G_o(p) sum_c filter(p - c) q_o(c): the
 * adjoint of the pooling. All of it streams down the image: relevance is gathered from the frames onto a row of bin
 * centres, the row is divided by h, and a pixel row gathers the centres within reach. Pixels outside the image are
 * copies of the border pixel, so what they gather is the border pixel's.
 *
 * Every term q filter G that a pixel gathers is a share of one R and no larger, so float is as accurate here as for R.
 * Sums over rows of lost relevance, and over scales of pixels, are double. */
#include "fisher/planes.inc.c"

/* h up to this counts as 0, so that R / h stays finite: docs/numerics.md §12. */
#if REAL_BITS == 32
#define LEAST_POOLED 1e-25f
#else
#define LEAST_POOLED 0.0
#endif

/* Rows that are filtered along y together, so that each row read serves all of them. */
enum { BLOCK_ROWS = VBYTES == 64 ? 4 : 2 };

/* out[r][i] = sum_t taps[t][r] rows[t][i] for BLOCK_ROWS rows r of `pitch`, i < n rounded up to WIDE vectors. */
static void weigh_block(REAL *restrict out, ptrdiff_t pitch, const REAL *const *rows, const REAL *taps,
                           ptrdiff_t count, ptrdiff_t n) {
    enum { WIDE = 4 };
    for (ptrdiff_t i = 0; i < n; i += WIDE * LANES) {
        VREAL sum[BLOCK_ROWS][WIDE] = {{{0}}};
        for (ptrdiff_t t = 0; t < count; t++) {
            const REAL *row = rows[t] + i;
            VREAL value[WIDE];
            UNROLL for (int v = 0; v < WIDE; v++) value[v] = load(row + v * LANES);
            UNROLL for (int r = 0; r < BLOCK_ROWS; r++) {
                const VREAL tap = fill(taps[t * BLOCK_ROWS + r]);
                UNROLL for (int v = 0; v < WIDE; v++) sum[r][v] += tap * value[v];
            }
        }
        UNROLL for (int r = 0; r < BLOCK_ROWS; r++)
            UNROLL for (int v = 0; v < WIDE; v++) store(out + r * pitch + i + v * LANES, sum[r][v]);
    }
}

typedef struct {
    const fvlrp_scale *scale;
    sift_tracks tracks;
    plane_rows planes;
    ptrdiff_t next_plane;        /* rows of planes so far */
    ptrdiff_t next_frame;        /* rows of frames gathered so far */
    ptrdiff_t next_centre[BINS]; /* rows of bin centres divided so far, per track */
    ptrdiff_t across, pitch;     /* octets of one track, reals of all of them, in a row of bin centres */
    ptrdiff_t ring, depth;       /* rows of planes, and of a track's bin centres, that a ring holds */
    ptrdiff_t waiting;           /* rows of a track's bin centres that frames reach before h is pooled */
    ptrdiff_t plane_pitch, line_pitch;
    ptrdiff_t pad, padded;       /* a track's octets in a gathered row: `pad` zeros on either side */
    ptrdiff_t left, count;       /* first pixel column within reach of a centre; pixels of one phase */
    ptrdiff_t listed;            /* capacity of a list of weighted rows or columns */
    REAL *taps;                  /* (tracks, taps) */
    REAL *block_taps;            /* (tracks, taps + BLOCK_ROWS - 1, BLOCK_ROWS): for BLOCK_ROWS neighbouring rows */
    REAL *kept;                  /* ring of planes, `reach` border octets repeated on either side */
    REAL *along_x;               /* ring of planes pooled along x */
    REAL *pooled;                /* h on BLOCK_ROWS rows of bin centres */
    REAL *mass;                  /* (tracks along y, waiting) rows of R */
    REAL *shares;                /* (tracks along y, depth) rows of q */
    REAL *lines;                 /* BLOCK_ROWS pixel rows gathered along y */
    REAL *out, *sums;            /* one phase of a line gathered along x; that times the planes */
    double *pixels;              /* a pixel row from `left` on */
    float *plane;
    const REAL **rows;           /* rows of one weighted sum */
    REAL *row_taps, *column_taps;
    ptrdiff_t *columns;          /* (stride, listed): where in a line a pixel column of each phase gathers */
    ptrdiff_t *column_count;
    double lost;
} back_rows;

static void back_layout(back_rows *b, arena *memory) {
    const sift_tracks *t = &b->tracks;
    const fvlrp_scale *s = b->scale;
    const ptrdiff_t size = sizeof(REAL), reach = t->reach, frame = 3 * s->bin_size, group = 8;
    planes_layout(&b->planes, memory);
    b->across = (t->columns + group - 1) / group * group; /* weigh_block's tiles */
    b->pitch = row_pitch(t->tracks * b->across * ORIENTATIONS, size);
    b->ring = t->taps + BLOCK_ROWS - 1;
    b->depth = (b->ring - 1) / t->stride + 2;
    b->waiting = frame / t->stride + BLOCK_ROWS + 1;
    b->plane_pitch = row_pitch((s->width + 2 * reach + group * t->stride) * ORIENTATIONS, size);
    b->pad = (2 * reach + frame) / t->stride + 4;
    b->padded = b->across + 2 * b->pad;
    b->line_pitch = row_pitch(t->tracks * b->padded * ORIENTATIONS, size);
    b->left = s->first - reach;
    b->count = (s->step * (s->cols - 1) + frame + 2 * reach) / t->stride + 1;
    b->listed = imax(t->tracks * b->depth, b->ring);
    b->taps = carve(memory, t->tracks * t->taps, size);
    b->block_taps = carve(memory, t->tracks * b->ring * BLOCK_ROWS, size);
    b->kept = carve(memory, b->ring, b->plane_pitch * size);
    b->along_x = carve(memory, b->ring, b->pitch * size);
    b->pooled = carve(memory, BLOCK_ROWS, b->pitch * size);
    b->mass = carve(memory, t->tracks * b->waiting, b->pitch * size);
    b->shares = carve(memory, t->tracks * b->depth, b->pitch * size);
    b->lines = carve(memory, BLOCK_ROWS, b->line_pitch * size);
    b->out = carve(memory, (b->count + group) * ORIENTATIONS, size);
    b->sums = carve(memory, b->count + group, size);
    b->pixels = carve(memory, b->count * t->stride, sizeof(double));
    b->plane = carve(memory, s->width * ORIENTATIONS, sizeof(float));
    b->rows = carve(memory, b->listed, sizeof(REAL *));
    b->row_taps = carve(memory, b->listed * BLOCK_ROWS, size);
    b->column_taps = carve(memory, t->stride * b->listed, size);
    b->columns = carve(memory, t->stride * b->listed, sizeof(ptrdiff_t));
    b->column_count = carve(memory, t->stride, sizeof(ptrdiff_t));
}

/* Pixel columns `stride` apart gather with the same taps: one list for each phase, of every track's columns. */
static void list_columns(back_rows *b, ptrdiff_t phase) {
    const sift_tracks *t = &b->tracks;
    const ptrdiff_t x = b->left + phase;
    ptrdiff_t n = phase * b->listed;
    for (ptrdiff_t track = 0; track < t->tracks; track++) {
        ptrdiff_t count, first = within_reach(t, track, x, x, &count);
        for (ptrdiff_t u = first; u < first + count; u++, n++) {
            b->columns[n] = (track * b->padded + b->pad + u) * ORIENTATIONS;
            b->column_taps[n] = b->taps[track * t->taps + x - t->start[track] - u * t->stride + t->reach];
        }
    }
    b->column_count[phase] = n - phase * b->listed;
}

static void back_start(back_rows *b) {
    const sift_tracks *t = &b->tracks;
    const ptrdiff_t size = sizeof(REAL);
    for (ptrdiff_t track = 0; track < t->tracks; track++)
        for (ptrdiff_t j = 0; j < t->taps; j++)
            b->taps[track * t->taps + j] = (REAL)track_tap(b->scale, track, j - t->reach);
    memset(b->block_taps, 0, (size_t)(t->tracks * b->ring * BLOCK_ROWS * size));
    for (ptrdiff_t track = 0; track < t->tracks; track++)
        for (ptrdiff_t j = 0; j < t->taps; j++)
            for (ptrdiff_t r = 0; r < BLOCK_ROWS; r++)
                b->block_taps[(track * b->ring + j + r) * BLOCK_ROWS + r] = b->taps[track * t->taps + j];
    for (ptrdiff_t phase = 0; phase < t->stride; phase++) list_columns(b, phase);
    /* Vectors read past the end of rows: finite values there. The margins of gathered lines are 0. */
    memset(b->kept, 0, (size_t)(b->ring * b->plane_pitch * size));
    memset(b->along_x, 0, (size_t)(b->ring * b->pitch * size));
    memset(b->mass, 0, (size_t)(t->tracks * b->waiting * b->pitch * size));
    memset(b->shares, 0, (size_t)(t->tracks * b->depth * b->pitch * size));
    memset(b->lines, 0, (size_t)(BLOCK_ROWS * b->line_pitch * size));
    memset(b->out, 0, (size_t)((b->count + 8) * ORIENTATIONS * size));
    b->next_plane = imax(b->scale->first - t->reach, 0);
    planes_start(&b->planes, b->next_plane);
}

static REAL *share_row(const back_rows *b, ptrdiff_t track, ptrdiff_t index) {
    return b->shares + (track * b->depth + index % b->depth) * b->pitch;
}

static REAL *kept_row(const back_rows *b, ptrdiff_t y) { return b->kept + y % b->ring * b->plane_pitch; }

/* Planes of row y, pooled along x. */
static void back_plane(back_rows *b, ptrdiff_t y) {
    const sift_tracks *t = &b->tracks;
    const ptrdiff_t length = b->scale->width * ORIENTATIONS, octet = ORIENTATIONS * sizeof(REAL);
    REAL *kept = kept_row(b, y), *row = kept + t->reach * ORIENTATIONS;
    planes_row(&b->planes, y, b->plane);
    for (ptrdiff_t i = 0; i < length; i++) row[i] = b->plane[i];
    for (ptrdiff_t j = 1; j <= t->reach; j++) {
        memcpy(row - j * ORIENTATIONS, row, (size_t)octet);
        memcpy(row + length + (j - 1) * ORIENTATIONS, row + length - ORIENTATIONS, (size_t)octet);
    }
    REAL *out = b->along_x + y % b->ring * b->pitch;
    for (ptrdiff_t track = 0; track < t->tracks; track++)
        weigh_octets(out + track * b->across * ORIENTATIONS, kept + t->start[track] * ORIENTATIONS, t->stride,
                        b->taps + track * t->taps, t->taps, t->columns);
}

/* h on `count` rows of bin centres, 1 or BLOCK_ROWS neighbours, from pixel row y on. */
static void pool_rows(back_rows *b, ptrdiff_t track, ptrdiff_t y, ptrdiff_t count) {
    const sift_tracks *t = &b->tracks;
    const ptrdiff_t last = b->scale->height - 1, n = t->tracks * b->across * ORIENTATIONS, taps = t->taps + count - 1;
    for (; b->next_plane <= imin(y + count - 1 + t->reach, last); b->next_plane++) back_plane(b, b->next_plane);
    for (ptrdiff_t j = 0; j < taps; j++)
        b->rows[j] = b->along_x + clamp(y + j - t->reach, last + 1) % b->ring * b->pitch;
    if (count == 1) weigh(b->pooled, b->rows, b->taps + track * t->taps, taps, n);
    else weigh_block(b->pooled, b->pitch, b->rows, b->block_taps + track * b->ring * BLOCK_ROWS, taps, n);
}

static REAL *mass_row(const back_rows *b, ptrdiff_t track, ptrdiff_t index) {
    return b->mass + (track * b->waiting + index % b->waiting) * b->pitch;
}

/* Add the relevance of the frame rows up to k to the rows of bin centres that their bins lie on. Every frame is read
 * once, in order: of all arrays here, only relevance does not fit in cache. */
static void gather_frames(back_rows *b, ptrdiff_t k, const REAL *relevance) {
    const sift_tracks *t = &b->tracks;
    const fvlrp_scale *s = b->scale;
    for (; b->next_frame <= imin(k, s->rows - 1); b->next_frame++) {
        const REAL *from = relevance + b->next_frame * s->cols * VALUES;
        REAL *rows[BINS];
        ptrdiff_t columns[BINS];
        for (int i = 0; i < BINS; i++) {
            rows[i] = mass_row(b, t->track[i], b->next_frame * t->jump + t->shift[i]);
            columns[i] = (t->track[i] * b->across + t->shift[i]) * ORIENTATIONS;
        }
        for (ptrdiff_t j = 0, at = 0; j < s->cols; j++, at += t->jump * ORIENTATIONS, from += VALUES)
            UNROLL for (int bin = 0; bin < BINS * BINS; bin++) {
                REAL *to = rows[bin / BINS] + columns[bin % BINS] + at;
                store8(to, load8(to) + load8(from + bin * ORIENTATIONS));
            }
    }
}

/* q = R / h on a row of bin centres; relevance where h = 0 is lost. */
static void divide_row(back_rows *b, ptrdiff_t track, ptrdiff_t index, const REAL *pooled) {
    REAL *share = share_row(b, track, index), *mass = mass_row(b, track, index);
    const VREAL one = fill(1);
    VREAL lost = {0};
    for (ptrdiff_t i = 0; i < b->tracks.tracks * b->across * ORIENTATIONS; i += LANES) {
        const VREAL h = load(pooled + i), r = load(mass + i);
        const VMASK full = h > LEAST_POOLED;
        store(share + i, only(full, quotient(r, pick(full, h, one))));
        lost += only(~full, r);
    }
    b->lost += sum_lanes_wide(lost);
    memset(mass, 0, (size_t)b->pitch * sizeof(REAL)); /* for the next row in this place of the ring */
}

/* How many rows of bin centres from `index` on are best pooled together; 0 if no frame has that row. Rows further apart
 * than a pixel share too few of their taps. */
static ptrdiff_t rows_together(const back_rows *b, ptrdiff_t index, ptrdiff_t end) {
    const sift_tracks *t = &b->tracks;
    ptrdiff_t count = 0;
    while (count < BLOCK_ROWS && index + count < end && row_needed(t, index + count, 0, b->scale->rows)) count++;
    return t->stride == 1 && count == BLOCK_ROWS ? count : imin(count, 1);
}

/* q on a track's rows of bin centres down to pixel row `last`. */
static void divide_until(back_rows *b, ptrdiff_t track, ptrdiff_t last, const REAL *relevance) {
    const sift_tracks *t = &b->tracks;
    const ptrdiff_t rows = (b->scale->rows - 1) * t->jump + t->span + 1;
    const ptrdiff_t end = imin(rows, floor_divide(last - t->start[track], t->stride) + 1);
    while (b->next_centre[track] < end) {
        const ptrdiff_t index = b->next_centre[track], count = rows_together(b, index, end);
        if (count) pool_rows(b, track, t->start[track] + index * t->stride, count);
        for (ptrdiff_t r = 0; r < count; r++) {
            gather_frames(b, (index + r) / t->jump, relevance);
            divide_row(b, track, index + r, b->pooled + r * b->pitch);
        }
        b->next_centre[track] += imax(count, 1);
    }
}

/* The first and the last row that pixel row y stands for: a border row also stands for the rows outside the image and
 * within reach, which are its copies. */
static ptrdiff_t topmost(const back_rows *b, ptrdiff_t y) {
    return y == 0 ? imin(b->scale->first - b->tracks.reach, 0) : y;
}
static ptrdiff_t bottommost(const back_rows *b, ptrdiff_t y) {
    const fvlrp_scale *s = b->scale;
    return y == s->height - 1 ? imax(s->first + s->step * (s->rows - 1) + 3 * s->bin_size + b->tracks.reach, y) : y;
}

/* List the rows of bin centres that pixel rows [y, y + count) gather, count <= BLOCK_ROWS, and their taps. */
static ptrdiff_t list_rows(back_rows *b, ptrdiff_t y, ptrdiff_t count) {
    const sift_tracks *t = &b->tracks;
    ptrdiff_t n = 0;
    for (ptrdiff_t track = 0; track < t->tracks; track++) {
        ptrdiff_t centres;
        const ptrdiff_t first = within_reach(t, track, topmost(b, y), bottommost(b, y + count - 1), &centres);
        for (ptrdiff_t index = imax(first, 0); index < first + centres; index++) {
            if (!row_needed(t, index, 0, b->scale->rows)) continue;
            const ptrdiff_t centre = t->start[track] + index * t->stride;
            for (ptrdiff_t r = 0; r < BLOCK_ROWS; r++) {
                const ptrdiff_t from = imax(topmost(b, y + r) - centre, -t->reach);
                const ptrdiff_t to = r < count ? imin(bottommost(b, y + r) - centre, t->reach) : from - 1;
                REAL tap = 0;
                for (ptrdiff_t p = from; p <= to; p++) tap += b->taps[track * t->taps + t->reach + p];
                b->row_taps[n * BLOCK_ROWS + r] = tap;
            }
            b->rows[n++] = share_row(b, track, index);
        }
    }
    return n;
}

/* sums[m] = octet m times octet stride m of the planes, for m < count rounded up to 8. */
INLINE void times_planes(const REAL *octets, const REAL *planes, ptrdiff_t stride, ptrdiff_t count, REAL *sums) {
    for (ptrdiff_t m = 0; m < count; m += 8) {
        OCTET product[8];
        UNROLL for (int i = 0; i < 8; i++)
            product[i] = load8(octets + (m + i) * ORIENTATIONS) * load8(planes + (m + i) * stride * ORIENTATIONS);
        store8(sums + m, sums_of_eight(product));
    }
}

/* Add to pixel row y what it gathers along x from its line. */
static void gather_line(back_rows *b, ptrdiff_t y, const REAL *line, double *pixels) {
    const sift_tracks *t = &b->tracks;
    const ptrdiff_t width = b->scale->width, stride = t->stride;
    const REAL *planes = kept_row(b, y) + (b->left + t->reach) * ORIENTATIONS;
    for (ptrdiff_t phase = 0; phase < stride; phase++, planes += ORIENTATIONS) {
        const ptrdiff_t list = phase * b->listed;
        for (ptrdiff_t i = 0; i < b->column_count[phase]; i++) b->rows[i] = line + b->columns[list + i];
        weigh(b->out, b->rows, b->column_taps + list, b->column_count[phase], b->count * ORIENTATIONS);
        times_planes(b->out, planes, stride, b->count, b->sums);
        for (ptrdiff_t m = 0; m < b->count; m++) b->pixels[phase + m * stride] = (double)b->sums[m];
    }
    /* One addition a pixel: the same bits whether scales add to one map or their maps are added. */
    const ptrdiff_t right = b->left + b->count * stride;
    double *from = b->pixels - b->left;
    for (ptrdiff_t x = b->left; x < 0; x++) from[0] += from[x];
    for (ptrdiff_t x = width; x < right; x++) from[width - 1] += from[x];
    pixels += y * width;
    for (ptrdiff_t x = imax(b->left, 0); x < imin(right, width); x++) pixels[x] += from[x];
}

/* Add to pixel rows [y, y + count) what they gather, count <= BLOCK_ROWS. */
static void gather_rows(back_rows *b, ptrdiff_t y, ptrdiff_t count, double *pixels) {
    const sift_tracks *t = &b->tracks;
    const ptrdiff_t n = list_rows(b, y, count);
    if (!n) return;
    for (ptrdiff_t track = 0; track < t->tracks; track++) {
        REAL *lines = b->lines + (track * b->padded + b->pad) * ORIENTATIONS;
        weigh_block(lines, b->line_pitch, b->rows, b->row_taps, n, b->across * ORIENTATIONS);
        for (ptrdiff_t i = 0; i < n; i++) b->rows[i] += b->across * ORIENTATIONS;
    }
    for (ptrdiff_t r = 0; r < count; r++) gather_line(b, y + r, b->lines + r * b->line_pitch, pixels);
}

static int sift_pixels(const fvlrp_sift_pixels_args *args) {
    const fvlrp_scale *scale = &args->scale;
    if (!scale->rows || !scale->cols) return FVLRP_OK;
    back_rows b = {.scale = scale, .tracks = sift_tracks_of(scale), .planes = planes_of(scale, args->image)};
    arena memory = {0};
    back_layout(&b, &memory);
    if (arena_open(&memory)) return FVLRP_E_MEMORY;
    back_layout(&b, &memory);
    back_start(&b);

    const ptrdiff_t reach = b.tracks.reach, last = scale->first + scale->step * (scale->rows - 1) + 3 * scale->bin_size;
    const ptrdiff_t end = imin(last + reach, scale->height - 1) + 1;
    for (ptrdiff_t y = imax(scale->first - reach, 0); y < end; y += BLOCK_ROWS) {
        for (ptrdiff_t track = 0; track < b.tracks.tracks; track++)
            divide_until(&b, track, y + BLOCK_ROWS - 1 + reach, args->relevance);
        gather_rows(&b, y, imin(BLOCK_ROWS, end - y), args->pixels);
    }
    *args->zero_bin += b.lost;
    arena_close(&memory);
    return FVLRP_OK;
}
