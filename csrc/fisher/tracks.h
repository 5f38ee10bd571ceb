/* tracks.h - where the bins of one scale are pooled, with which filters and weights. */
#ifndef FVLRP_TRACKS_H
#define FVLRP_TRACKS_H

#include <math.h>

#include "fvlrp.h"
#include "sizes.h"

enum { BINS = 4, ORIENTATIONS = 8, VALUES = BINS * BINS * ORIENTATIONS };

/* Pooled rows and columns come in tracks: regular runs of bin centres that share a filter, the same on both axes. The
 * flat window needs one track, every multiple of gcd(step, bin size) from the first centre, which the four bins of all
 * frames share. The Gaussian window needs one track per bin index, for its filter depends on the bin. Bin i of frame k
 * is entry jump k + shift[i] of track[i]. */
typedef struct {
    ptrdiff_t tracks, stride, jump, span; /* span: from a frame's first entry to its last in a track */
    ptrdiff_t start[BINS], track[BINS], shift[BINS];
    ptrdiff_t reach, taps; /* a filter has 2 reach + 1 taps about the centre */
    ptrdiff_t columns;     /* entries of a track along x */
} sift_tracks;

INLINE ptrdiff_t common_divisor(ptrdiff_t a, ptrdiff_t b) {
    while (b) {
        const ptrdiff_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

INLINE sift_tracks sift_tracks_of(const fvlrp_scale *s) {
    const int flat = s->window == FVLRP_WINDOW_FLAT;
    const ptrdiff_t stride = flat ? common_divisor(s->step, s->bin_size) : s->step;
    sift_tracks t = {.tracks = flat ? 1 : BINS, .stride = stride, .jump = s->step / stride};
    t.span = flat ? 3 * s->bin_size / stride : 0;
    t.reach = s->bin_size - 1;
    t.taps = 2 * t.reach + 1;
    t.columns = (s->cols - 1) * t.jump + t.span + 1;
    for (int i = 0; i < BINS; i++) {
        t.start[i] = s->first + (flat ? 0 : i * s->bin_size);
        t.track[i] = flat ? 0 : i;
        t.shift[i] = flat ? i * s->bin_size / stride : 0;
    }
    return t;
}

/* exp(-z^2 / 2) at offset t from the centre of bin i. The window is centred on the frame, from which bin i is
 * bin_size (i - 1.5) away. (VLFeat's kernel has the opposite sign of t, and is then convolved.) */
INLINE double window_at(const fvlrp_scale *s, int i, double t) {
    const double z = (t + (double)s->bin_size * (i - 1.5)) / ((double)s->bin_size * s->window_size);
    return exp(-.5 * z * z);
}

/* Filter of a track at offset t: the triangle of height 1, times the Gaussian window unless that is flat. */
INLINE double track_tap(const fvlrp_scale *s, ptrdiff_t track, ptrdiff_t t) {
    const double triangle = 1 - fabs((double)t) / (double)s->bin_size;
    return s->window == FVLRP_WINDOW_FLAT ? triangle : triangle * window_at(s, (int)track, (double)t);
}

/* The flat window's weight of bin i: the Gaussian window's mean over the bin's support. */
INLINE double bin_weight(const fvlrp_scale *s, int i) {
    if (s->window != FVLRP_WINDOW_FLAT) return 1;
    double sum = 0;
    for (ptrdiff_t t = 1 - s->bin_size; t < s->bin_size; t++) sum += window_at(s, i, (double)t);
    return sum / (double)(2 * s->bin_size - 1);
}

/* Whether entry `index` of a track along y belongs to one of the frame rows [begin, end). */
INLINE int row_needed(const sift_tracks *t, ptrdiff_t index, ptrdiff_t begin, ptrdiff_t end) {
    if (index < begin * t->jump || index > (end - 1) * t->jump + t->span) return 0;
    for (int i = 0; i < BINS; i++)
        if ((index - t->shift[i]) % t->jump == 0) return 1;
    return 0;
}

INLINE ptrdiff_t floor_divide(ptrdiff_t a, ptrdiff_t b) { return a / b - (a % b < 0); }

/* Entries of a track whose centre lies within reach of one of the pixels [from, to]: the first, and how many. */
INLINE ptrdiff_t within_reach(const sift_tracks *t, ptrdiff_t track, ptrdiff_t from, ptrdiff_t to, ptrdiff_t *count) {
    const ptrdiff_t first = floor_divide(from - t->reach - t->start[track] + t->stride - 1, t->stride);
    *count = floor_divide(to + t->reach - t->start[track], t->stride) - first + 1;
    return first;
}

#endif
