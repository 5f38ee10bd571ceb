/* sift.inc.c - dense SIFT in VLFeat's geometry: descriptors from an image. The backward pass is in
 * sift_pixels.inc.c. Float only. */
#include "fisher/planes.inc.c"

typedef struct {
    const fvlrp_scale *scale;
    sift_tracks tracks;
    plane_rows planes;
    ptrdiff_t next;         /* rows pooled along x so far */
    ptrdiff_t pitch, depth; /* floats per pooled row; rows that a track's ring of pooled rows holds */
    float *taps;            /* (tracks, taps) */
    float *octets;          /* one row of planes, the border octet repeated on either side */
    float *along_x;         /* ring of `taps` rows pooled along x: (tracks, columns) octets each */
    float *pooled;          /* (tracks along y, depth) rows pooled along both axes */
    const float **rows;
    float weight[VALUES];
} sift_band;

static void band_layout(sift_band *b, arena *memory) {
    const sift_tracks *t = &b->tracks;
    planes_layout(&b->planes, memory);
    b->pitch = row_pitch((t->tracks * t->columns + 4) * ORIENTATIONS, sizeof(float));
    b->depth = (t->tracks == 1 ? t->span : 3 * b->scale->bin_size / t->stride) + 1;
    b->taps = carve(memory, t->tracks * t->taps, sizeof(float));
    b->rows = carve(memory, t->taps, sizeof(float *));
    b->octets = carve(memory, (b->scale->width + 2 * t->reach + 4 * t->stride) * ORIENTATIONS, sizeof(float));
    b->along_x = carve(memory, t->taps, b->pitch * (ptrdiff_t)sizeof(float));
    b->pooled = carve(memory, t->tracks * b->depth, b->pitch * (ptrdiff_t)sizeof(float));
}

static void band_start(sift_band *b, ptrdiff_t first_row) {
    const sift_tracks *t = &b->tracks;
    for (ptrdiff_t track = 0; track < t->tracks; track++)
        for (ptrdiff_t j = 0; j < t->taps; j++)
            b->taps[track * t->taps + j] = (float)track_tap(b->scale, track, j - t->reach);
    double weight[BINS];
    for (int i = 0; i < BINS; i++) weight[i] = bin_weight(b->scale, i);
    for (int i = 0; i < VALUES; i++) {
        const int bin = i / ORIENTATIONS;
        b->weight[i] = (float)(weight[bin / BINS] * weight[bin % BINS]);
    }
    /* Vectors read past the end of a row: finite values there avoid traps and denormals. */
    memset(b->octets, 0, (size_t)((b->scale->width + 2 * t->reach + 4 * t->stride) * ORIENTATIONS) * sizeof(float));
    memset(b->along_x, 0, (size_t)(t->taps * b->pitch) * sizeof(float));
    b->next = first_row;
    planes_start(&b->planes, first_row);
}

static void pool_along_x(sift_band *b, ptrdiff_t y) {
    const sift_tracks *t = &b->tracks;
    const ptrdiff_t width = b->scale->width;
    float *row = b->octets + t->reach * ORIENTATIONS;
    planes_row(&b->planes, y, row);
    for (ptrdiff_t j = 1; j <= t->reach; j++) {
        memcpy(row - j * ORIENTATIONS, row, ORIENTATIONS * sizeof(float));
        memcpy(row + (width - 1 + j) * ORIENTATIONS, row + (width - 1) * ORIENTATIONS, ORIENTATIONS * sizeof(float));
    }
    float *out = b->along_x + y % t->taps * b->pitch;
    for (ptrdiff_t track = 0; track < t->tracks; track++)
        weigh_octets(out + track * t->columns * ORIENTATIONS, b->octets + t->start[track] * ORIENTATIONS, t->stride,
                     b->taps + track * t->taps, t->taps, t->columns);
}

static float *pooled_row(const sift_band *b, ptrdiff_t track, ptrdiff_t index) {
    return b->pooled + (track * b->depth + index % b->depth) * b->pitch;
}

/* Pool row y, a centre of `track`, along y. */
static void pool_along_y(sift_band *b, ptrdiff_t track, ptrdiff_t index, ptrdiff_t y) {
    const sift_tracks *t = &b->tracks;
    const ptrdiff_t height = b->scale->height;
    for (; b->next <= imin(y + t->reach, height - 1); b->next++) pool_along_x(b, b->next);
    for (ptrdiff_t j = 0; j < t->taps; j++)
        b->rows[j] = b->along_x + clamp(y + j - t->reach, height) % t->taps * b->pitch;
    weigh(pooled_row(b, track, index), b->rows, b->taps + track * t->taps, t->taps,
          t->tracks * t->columns * ORIENTATIONS);
}

/* Bins `bin`, bin + 1, ... of a frame, as many as a vector holds, or the part of one bin that it holds. Bin (iy, ix) is
 * at rows[iy] + columns[ix]. */
INLINE vfloat load_bins(const float *const *rows, const ptrdiff_t *columns, int value) {
    const int bin = value / ORIENTATIONS;
    const float *at = rows[bin / BINS] + columns[bin % BINS] + value % ORIENTATIONS;
#if VBYTES == 64
    const float *beside = rows[bin / BINS] + columns[bin % BINS + 1];
    return (vfloat)_mm512_insertf32x8(_mm512_castps256_ps512(_mm256_loadu_ps(at)), _mm256_loadu_ps(beside), 1);
#else
    return load(at);
#endif
}

/* One descriptor from its 16 pooled octets. Returns 1, and writes zeros, where their mass is below `least_mass`. */
INLINE int describe(const float *const *rows, const ptrdiff_t *columns, const float *weight, float least_mass, int type,
                    void *out) {
    enum { PIECES = VALUES / FLOATS };
    const float epsilon = 1.1920929e-07f;
    vfloat v[PIECES], mass[2] = {{0}}, square[2] = {{0}};
    UNROLL for (int i = 0; i < PIECES; i++) {
        v[i] = load_bins(rows, columns, i * FLOATS) * load(weight + i * FLOATS);
        mass[i % 2] += v[i];
        square[i % 2] += v[i] * v[i];
    }
    if (sum_lanes(mass[0] + mass[1]) < least_mass) {
        memset(out, 0, (size_t)(VALUES * (type == FVLRP_U8 ? 1 : 4)));
        return 1;
    }
    /* Clipping h at .2 norm is clipping h / norm at .2, and one multiplication then applies both norms. */
    const float norm = sqrtf(sum_lanes(square[0] + square[1])) + epsilon;
    const vfloat clip = fill(.2f * norm);
    square[0] = square[1] = (vfloat){0};
    UNROLL for (int i = 0; i < PIECES; i++) {
        v[i] = smaller(v[i], clip);
        square[i % 2] += v[i] * v[i];
    }
    const float scale = 512 / (sqrtf(sum_lanes(square[0] + square[1])) + epsilon * norm);
    const vfloat top = fill(255);
    UNROLL for (int i = 0; i < PIECES; i++) {
        const vfloat u = smaller(v[i] * scale, top);
        if (type == FVLRP_U8) store_bytes((uint8_t *)out + i * FLOATS, u);
        else store((float *)out + i * FLOATS, u);
    }
    return 0;
}

/* Descriptors of frame row k, whose four rows of bins are pooled. */
INLINE void describe_row(const sift_band *b, ptrdiff_t k, int type, void *values, uint8_t *zeroed) {
    const sift_tracks *t = &b->tracks;
    const fvlrp_scale *s = b->scale;
    const double frame = 3 * (double)s->bin_size + 1;
    /* With a threshold of 0, descriptors without any gradient are still flagged. */
    const double threshold = s->contrast_threshold * frame * frame;
    const float least_mass = threshold > FLT_MIN ? (float)threshold : FLT_MIN;
    const float *rows[BINS];
    ptrdiff_t columns[BINS];
    for (int i = 0; i < BINS; i++) {
        rows[i] = pooled_row(b, t->track[i], k * t->jump + t->shift[i]);
        columns[i] = (t->track[i] * t->columns + t->shift[i]) * ORIENTATIONS;
    }
    for (ptrdiff_t j = 0; j < s->cols; j++) {
        void *out = (char *)values + (k * s->cols + j) * VALUES * (type == FVLRP_U8 ? 1 : 4);
        const int zero = describe(rows, columns, b->weight, least_mass, type, out);
        if (zeroed) zeroed[k * s->cols + j] = (uint8_t)zero;
        for (int i = 0; i < BINS; i++) rows[i] += t->jump * ORIENTATIONS;
    }
}

static int sift(const fvlrp_sift_args *args) {
    const fvlrp_scale *scale = &args->scale;
    sift_band b = {.scale = scale, .tracks = sift_tracks_of(scale), .planes = planes_of(scale, args->image)};
    arena memory = {0};
    band_layout(&b, &memory);
    if (arena_open(&memory)) return FVLRP_E_MEMORY;
    band_layout(&b, &memory);

    const sift_tracks *t = &b.tracks;
    const ptrdiff_t begin = args->begin, end = args->end, frame = 3 * scale->bin_size;
    const ptrdiff_t top = scale->first + scale->step * begin, bottom = scale->first + scale->step * (end - 1) + frame;
    band_start(&b, imax(top - t->reach, 0));
    for (ptrdiff_t y = top; y <= bottom; y++) {
        for (ptrdiff_t track = 0; track < t->tracks; track++) {
            const ptrdiff_t below = y - t->start[track], index = below / t->stride;
            if (below >= 0 && below % t->stride == 0 && row_needed(t, index, begin, end))
                pool_along_y(&b, track, index, y);
        }
        if (y - top < frame || (y - top - frame) % scale->step) continue;
        const ptrdiff_t k = begin + (y - top - frame) / scale->step;
        if (args->type == FVLRP_U8) describe_row(&b, k, FVLRP_U8, args->values, args->zeroed);
        else describe_row(&b, k, FVLRP_F32, args->values, args->zeroed);
    }
    arena_close(&memory);
    return FVLRP_OK;
}
