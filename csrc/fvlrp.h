/* fvlrp.h - the kernels of fvlrp: what they compute, on which arrays, and what they return.
 *
 * This header is the manual. The kernels are C11 and libm only: single-threaded, re-entrant, with no state but the
 * dispatch table that fvlrp_select() fills, no printing, no abort. They may run on bands of rows from several
 * threads at once. Every kernel that computes has a slow NumPy twin in tests/reference.py.
 *
 * Conventions
 *   - Arrays are C-contiguous; rows (y) before columns (x). Sizes are ptrdiff_t and counted in elements.
 *   - "real" arrays are float or double as a `real` argument or field says (FVLRP_F32 or FVLRP_F64).
 *   - Sums over descriptors are double, whatever the real type: they are the ill-conditioned part.
 *   - Every function that can fail returns FVLRP_OK or a negative status; fvlrp_words() puts it into words. On an error the outputs
 *     hold nothing of use.
 *   - Results do not depend on how rows are cut into bands.
 *
 * Symbols: K components, D dimensions of a projected descriptor, x a SIFT descriptor of 128 values = 4 x 4 spatial
 * bins (y outer) x 8 orientations, value 32 iy + 8 ix + o; y = P (x - m) its projection; pi, mu, sigma of the mixture.
 */
#ifndef FVLRP_H
#define FVLRP_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- status and build ------------------------------------------------------------------------------------------ */

enum {
    FVLRP_OK = 0,
    FVLRP_E_ARGUMENT = -1, /* a size, type or option outside its range */
    FVLRP_E_MEMORY = -2,   /* scratch memory could not be had */
    FVLRP_E_FULL = -3,     /* an output of given capacity is full; the call says how far it came */
    FVLRP_E_ISA = -4       /* the instruction set is unknown here, or this processor lacks it */
};

enum { FVLRP_U8 = 1, FVLRP_F32 = 4, FVLRP_F64 = 8 }; /* element types; the value is the size in bytes */

/* One sentence for a status. Never NULL. */
const char *fvlrp_words(int status);

/* Fill the dispatch table. `isa` is "v2", "v3", "v4" (x86-64 levels), "vnni" (v4 and its products of bytes) or "generic";
 * NULL or "" takes the best that this processor has. Call it once, before any kernel, and not while one runs. */
int fvlrp_select(const char *isa);

/* The instruction set in use ("none" before fvlrp_select), and the i-th that the build and this processor both have
 * (NULL past the last). */
const char *fvlrp_isa(void);
const char *fvlrp_isa_available(int i);

/* ---- dense SIFT (VLFeat's geometry) ---------------------------------------------------------------------------- */

enum { FVLRP_WINDOW_FLAT = 0, FVLRP_WINDOW_GAUSSIAN = 1 };
enum { FVLRP_ANGLES_VLFEAT = 0, FVLRP_ANGLES_EXACT = 1 };

/* One scale: a regular grid of rows x cols descriptors, top-left bin centre at first + step * k on either axis. All bin
 * centres lie inside the height x width image. */
typedef struct fvlrp_scale {
    ptrdiff_t height, width;
    ptrdiff_t first, step, rows, cols;
    ptrdiff_t bin_size;
    int window;                /* FVLRP_WINDOW_* */
    int angles;                /* FVLRP_ANGLES_* : VLFeat's atan2 polynomial (cubic), or atan2f */
    int type;                  /* of the descriptors: FVLRP_U8 (truncated) or FVLRP_F32, both on 0..255 */
    double sigma;              /* standard deviation in pixels of the Gaussian that smooths the image; bin_size / 6 */
    double window_size;        /* of the Gaussian window, in bin sizes; 1.5 */
    double contrast_threshold; /* mean gradient magnitude below which a descriptor is zeroed; 0.005 */
} fvlrp_scale;

/* Descriptors of the frame rows [begin, end) of one scale.
 *   image   float (height, width), grey in 0..1, not smoothed
 *   values  scale->type (rows, cols, 128): only rows begin..end-1 are written
 *   zeroed  uint8 (rows, cols): 1 where the contrast is below the threshold or 0, and the descriptor zeros, else 0; may be NULL
 * Per pixel p: gradient magnitude spread linearly over 8 orientation planes G_o(p) >= 0. Per bin centre c:
 * h_o(c) = w_iy w_ix sum_p tri(p_y - c_y) tri(p_x - c_x) G_o(p), tri(t) = 1 - |t| / s, borders replicated. Then
 * L2-normalise, clip at 0.2, L2-normalise, times 512, clip at 255. */
int fvlrp_sift(const fvlrp_scale *scale, const float *image, ptrdiff_t begin, ptrdiff_t end, void *values,
               uint8_t *zeroed);

/* The orientation planes themselves: float (height, width, 8), smoothed with scale->sigma. */
int fvlrp_sift_planes(const fvlrp_scale *scale, const float *image, float *planes);

/* Depth "gradient": relevance of the descriptors' 128 values down to pixels, through the same planes.
 *   relevance  real (rows, cols, 128)
 *   pixels     double (height, width): ADDED to
 *   zero_bin   double: ADDED to: relevance of values whose bin holds no gradient at all (h = 0), which has no pixels
 * With q_lbo = R_lbo / h_lbo, R_p = sum_o G_o(p) sum_{l,b} tri(p - c_lb) q_lbo; replicated borders fold back onto the
 * pixel they were copied from. sum(pixels) + zero_bin = sum(relevance), up to rounding in
 * the real type. Each pixel is added to once. */
int fvlrp_sift_pixels(const fvlrp_scale *scale, const float *image, int real, const void *relevance, double *pixels,
                      double *zero_bin);

/* ---- projection and diagonal Gaussian mixture ------------------------------------------------------------------ */

/* A model packed once for the instruction set in use; every pointer lies in one block that the caller owns. */
typedef struct fvlrp_model {
    int real;             /* FVLRP_F32 or FVLRP_F64: type of the packed tables and of the arithmetic */
    ptrdiff_t inputs;     /* values of a descriptor (128), or 0 for a mixture alone */
    ptrdiff_t dims;       /* D */
    ptrdiff_t stride;     /* D rounded up to a multiple of 16: row length of y, relevance and tables; padding is 0 */
    ptrdiff_t components; /* K */
    double gate;          /* posteriors below it count as 0, in encoding and in relevance alike */
    /* private */
    void *forward, *backward, *binned, *mean;  /* projection */
    void *whole;                               /* projection in whole numbers: whole.h */
    double *basis;
    void *logits, *offset, *origin, *scale, *shift;     /* mixture */
    double *centre;
    void *screen;                              /* mixture in whole numbers: screen.h */
} fvlrp_model;

/* Bytes of the block of a model of these sizes (for any alignment of the block). */
size_t fvlrp_model_bytes(int real, ptrdiff_t inputs, ptrdiff_t dims, ptrdiff_t components);

/* Pack a model.
 *   basis      double (D, inputs), rows of the projection, or NULL where inputs = 0
 *   mean       double (inputs), subtracted before projecting, or NULL
 *   priors, means, variances   double (K), (K, D), (K, D), or NULL where components = 0 */
int fvlrp_model_pack(fvlrp_model *model, int real, ptrdiff_t inputs, ptrdiff_t dims, ptrdiff_t components,
                     const double *basis, const double *mean, const double *priors, const double *means,
                     const double *variances, double gate, void *block);

/* y = P (x - m) for the descriptors x[rows[0]], ..., x[rows[n-1]] (x[0..n-1] where rows is NULL).
 *   x  type (any, inputs): FVLRP_U8, FVLRP_F32 or FVLRP_F64;   y  real (n, stride) */
int fvlrp_project(const fvlrp_model *model, int type, const void *x, const int64_t *rows, ptrdiff_t n, void *y);

/* Gated posteriors of n projected descriptors, in CSR form, and the sums of the Fisher vector's statistics.
 *   gamma_k = pi_k N(y; mu_k, diag sigma_k^2) / sum_j ...;  gamma < gate -> 0, no renormalisation
 *   y        real (n, stride)
 *   indptr   int64 (n + 1): row i's entries are indptr[i] .. indptr[i+1]-1; indptr[0] is read (the caller's start)
 *   index    uint16 (capacity), component of each entry, ascending in a row
 *   gamma    real (capacity)
 *   loglik   double (n): log sum_k pi_k N(y; ...), or NULL
 *   done     how many rows were finished; with FVLRP_E_FULL the caller makes room and goes on there */
int fvlrp_posteriors(const fvlrp_model *model, const void *y, ptrdiff_t n, ptrdiff_t capacity, int64_t *indptr,
                     uint16_t *index, void *gamma, double *loglik, ptrdiff_t *done);

/* ADD to the sums over n rows, with z = (y - mu_k) / sigma_k:
 *   s0  double (K): sum gamma;   s1  double (K, D): sum gamma z;   s2  double (K, D): sum gamma z^2
 * Float sums run over at most 192 rows before they are merged in double. */
int fvlrp_pool(const fvlrp_model *model, const void *y, ptrdiff_t n, const int64_t *indptr, const uint16_t *index,
               const void *gamma, double *s0, double *s1, double *s2);

/* The three above in one pass over tiles of rows that stay in cache: descriptors in, sums out. y, indptr, index and
 * gamma are kept for fvlrp_relevance (y may be dropped). Arguments as above; `done` and FVLRP_E_FULL as in fvlrp_posteriors. */
int fvlrp_encode(const fvlrp_model *model, int type, const void *x, const int64_t *rows, ptrdiff_t n,
                 ptrdiff_t capacity, void *y, int64_t *indptr, uint16_t *index, void *gamma, double *s0, double *s1,
                 double *s2, ptrdiff_t *done);

/* ---- relevance (Eqs. 5-6, then Eq. 1 through the projection) --------------------------------------------------- */

enum { FVLRP_MEAN_NONE = 0, FVLRP_MEAN_CENTERED = 1, FVLRP_MEAN_BIAS = 2 };

/* What fvlrp_relevance is to write; any pointer may be NULL. Row i of the call goes to row rows[i] (i where rows is
 * NULL) of every array; `targets` arrays of each kind follow one another, `pitch` rows apart. */
typedef struct fvlrp_relevances {
    double *total; /* (targets, pitch): sum over dimensions */
    void *pca;     /* real (targets, pitch, D): per projected dimension */
    void *bins;    /* real (targets, pitch, 16): per spatial bin */
    void *sift;    /* real (targets, pitch, 128): per descriptor value */
    double *absorbed; /* (targets): ADDED to: what the stabiliser absorbs; with epsilon = 0, what 0/0 = 0 drops */
    double *bias;     /* (targets): ADDED to: what the mean absorbs under FVLRP_MEAN_BIAS */
    ptrdiff_t pitch;
} fvlrp_relevances;

/* Relevance of n encoded descriptors of one finest pyramid cell, for several targets at once.
 *   R_li = sum_k gamma_k (a_ki z + b_ki (z^2 - 1)),  z = (y_li - mu_ki) / sigma_ki               (Eqs. 5-6)
 *   R_l,in = sum_i basis_i,in xhat_in R_li / (z_i + epsilon sgn z_i),  z_i = sum_in basis_i,in xhat_in   (Eq. 1)
 * where xhat = x, or x - m for FVLRP_MEAN_CENTERED; FVLRP_MEAN_BIAS divides by y instead of z. sgn(0) = +1; with
 * epsilon = 0, 0/0 = 0.
 *   y       real (n, stride), or NULL: the descriptors are then projected again, to the same bits
 *   tables  real (targets, K, 3, stride): the polynomial c0 + c1 y + c2 y^2 of each (k, i): fvlrp_tables makes them.
 *           Rows of them are read at random: in whole cache lines, and fastest, where the array begins with one */
int fvlrp_relevance(const fvlrp_model *model, int type, const void *x, const int64_t *rows, ptrdiff_t n, const void *y,
                    const int64_t *indptr, const uint16_t *index, const void *gamma, ptrdiff_t targets,
                    const void *tables, double epsilon, int mean, const fvlrp_relevances *out);

/* Coefficient tables of one finest cell from the shares G = R / (S + epsilon sgn S) of the pyramid cells it lies in.
 *   shares  double (cells, 2, K, D): first-order block, then second-order block
 *   member  uint8 (cells): 1 for the cells that this finest cell belongs to
 *   priors  double (K);  means, deviations  double (K, D)
 *   tables  real (K, 3, stride) */
int fvlrp_tables(const fvlrp_model *model, ptrdiff_t cells, const double *shares, const uint8_t *member,
                 const double *priors, const double *means, const double *deviations, void *tables);

/* Values (targets, size bytes) into rows[0 .. n - 1] of each target's `pitch` rows in `out`: copies alone, which cannot
 * fail. That rows lie in 0 .. pitch - 1 is for the caller to see to. */
void fvlrp_put_rows(ptrdiff_t targets, size_t size, const void *values, const int64_t *rows, ptrdiff_t n, ptrdiff_t pitch,
                    void *out);

/* ---- the whole vector ------------------------------------------------------------------------------------------ */

/* Moments of z over some descriptors that lie in one finest cell, as fvlrp_encode and fvlrp_pool leave them. They count
 * `times` times: zeroed descriptors are all alike, so that one stands for many. */
typedef struct {
    ptrdiff_t finest;
    double times;
    const double *s0, *s1, *s2; /* (K), (K, D), (K, D) */
} fvlrp_part;

/* Sums of Psi (Eqs. 3-4) over pyramid cells, each a union of finest cells; parts are added in the order given.
 *   member     uint8 (finest, cells): 1 for the cells that a finest cell belongs to
 *   priors     double (K)
 *   sums       double (cells, 2, K, D): sum g z / sqrt(pi), then sum g (z^2 - 1) / sqrt(2 pi)
 *   occupancy  double (cells, K): sum g */
int fvlrp_merge(ptrdiff_t parts, const fvlrp_part *part, ptrdiff_t finest, ptrdiff_t cells, const uint8_t *member,
                ptrdiff_t components, ptrdiff_t dims, const double *priors, double *sums, double *occupancy);

/* Dot products of x (length) with n rows of coef (n, length), to double: float over 2048 products at a time. */
int fvlrp_scores(ptrdiff_t n, ptrdiff_t length, const float *coef, const float *x, double *out);

/* Improved Fisher vector of un-normalised sums: per-cell L2, signed square root, one global L2; norms at least 1e-12.
 *   sums, x  double (cells, length) */
int fvlrp_normalise(ptrdiff_t cells, ptrdiff_t length, const double *sums, double *x);

/* Shares G = R / (S + epsilon sgn S), sgn(0) = +1, by which Eqs. 5-6 weigh every Psi.
 *   relevance, sums, out  double (cells, length); out may be relevance
 *   counts   int64 (cells): descriptors of each cell; the shares of an empty one are 0
 *   epsilon  double (cells)
 *   spread   double (cells, length) or NULL: sums within 1e-12 of it count as 0
 *   ledger   double (3): sum of R epsilon / (|S| + epsilon) where S != 0; R of empty cells; R where S = 0 elsewhere */
int fvlrp_shares(ptrdiff_t cells, ptrdiff_t length, const double *relevance, const double *sums,
                 const int64_t *counts, const double *epsilon, const double *spread, double *out, double *ledger);

/* ---- splats ---------------------------------------------------------------------------------------------------- */

/* Spread the values of one scale over pixels, each over a separable kernel around its own point:
 * pixels[y, x] += sum_p values[p] weight_y[p] weight_x[p] k[y - y_p] k[x - x_p].
 *   values   real (rows, cols, bins, bins): bins = 4 for spatial bins, 1 for whole descriptors; value (r, c, iy, ix) lies
 *            at y = first + step r + spacing iy, x = first + step c + spacing ix, inside the image
 *   weight_y double (rows, bins), weight_x double (cols, bins): the normalisation of a clipped support
 *   taps     double (length): the kernel of either axis, its first tap at offset `lead` from the point
 *   pixels   double (height, width): rows begin .. end - 1 (none where begin >= end), of 0 .. height - 1, are ADDED
 *            to; what falls outside is dropped */
int fvlrp_splat(int real, const void *values, ptrdiff_t rows, ptrdiff_t cols, ptrdiff_t bins, ptrdiff_t spacing,
                ptrdiff_t first, ptrdiff_t step, const double *weight_y, const double *weight_x, const double *taps,
                ptrdiff_t length, ptrdiff_t lead, ptrdiff_t begin, ptrdiff_t end, ptrdiff_t height,
                ptrdiff_t width, double *pixels);

/* ---- dense products and convolutions --------------------------------------------------------------------------- */

/* The windows of an image as a matrix: row (channel, ky, kx), column (oy, ox) holds the pixel
 * y = (first + oy) stride_y + ky dilation_y - top, x = ox stride_x + kx dilation_x - left, or 0 outside the image. */
typedef struct fvlrp_windows {
    ptrdiff_t channels, height, width; /* of the image, C-contiguous */
    ptrdiff_t kernel_y, kernel_x, stride_y, stride_x, dilation_y, dilation_x;
    ptrdiff_t top, left;         /* padding before the image; may be negative */
    ptrdiff_t first, rows, cols; /* the output rows first .. first + rows - 1 of `cols` pixels */
} fvlrp_windows;

/* Weights as they are, max(w, 0), min(w, 0), or |w|. */
enum { FVLRP_ALL = 0, FVLRP_POSITIVE = 1, FVLRP_NEGATIVE = -1, FVLRP_SIZE = 2 };

/* C = A B + bias, or C += A B + bias.
 *   a     real: A (m, k) at a[i row + (j / taps) channel + (j % taps) tap]; strides in elements, of any sign
 *   sign  FVLRP_ALL for A itself, or what takes its place; what is not a number stays so
 *   b     real (k, n), rows ldb apart; or the image of `windows`, where that is not NULL: then ldb is not used
 *   bias  real (m), or NULL
 *   c     real (m, n), rows ldc apart; disjoint from the rest
 * taps divides k; rows of A with contiguous columns (channel = taps, tap = 1) are read where they lie. */
int fvlrp_product(int real, ptrdiff_t m, ptrdiff_t k, ptrdiff_t n, const void *a, ptrdiff_t row, ptrdiff_t channel,
                  ptrdiff_t tap, ptrdiff_t taps, int sign, const void *b, ptrdiff_t ldb,
                  const fvlrp_windows *windows, const void *bias, int add, void *c, ptrdiff_t ldc);

/* The same in float for 3 x 3 windows that step by one pixel without dilation, by Winograd's F(4 x 4, 3 x 3): a quarter
 * of the multiplications, at two to four times the rounding error of fvlrp_product.
 *   a      float: the weights (m, channels, 9) at a[i row + c channel + t tap]
 *   sign   as above; where `other` is not NULL, the weights of the opposite sign meet that image and are added: with
 *          FVLRP_POSITIVE, C = max(A, 0) windows(image) + min(A, 0) windows(other); with the others NULL is expected
 *   image, other   float (channels, height, width)
 *   doubt  0, or for sums of terms of one sign the part of the sum of max |image| max |a| over a tile's pixels and
 *          a filter's taps below which a result is not to be trusted: what was cancelled in the transforms may outweigh
 *          it. It is then NaN, and the caller sums its terms. About 1e-3: then others are right to about 1e-3
 *   whole  float (m, rows cols), rows ldw apart, or NULL: with doubt > 0, the same holds for whole - C, and with
 *          FVLRP_SIZE for whole + C
 * A tile is 4 x 4 output pixels, from the first on, and the 6 x 6 input pixels that they see. A pixel that is not a
 * number spoils its tiles whole, not only the windows that see it. */
int fvlrp_winograd(ptrdiff_t m, const float *a, ptrdiff_t row, ptrdiff_t channel, ptrdiff_t tap, int sign,
                   const fvlrp_windows *windows, const float *image, const float *other, const float *bias, int add,
                   double doubt, const float *whole, ptrdiff_t ldw, float *c, ptrdiff_t ldc);

/* ---- relevance of linear layers and pools ---------------------------------------------------------------------- */

/* Denominators of some outputs of a dense layer: sums of the terms w x >= 0 and of those <= 0, each row read once.
 *   weight  real (m, n);   rows  int64 (count): the outputs, each in 0..m-1
 *   above   real (n): what meets W+ in `up` and W- in `down`; below  real (n) or NULL: the other way round, added
 *   up, down  real (count): up = W+ above + W- below, down = W- above + W+ below
 * With above = max(x, 0) and below = min(x, 0) these are z+ and z-, biases aside. */
int fvlrp_dense_sums(int real, ptrdiff_t m, ptrdiff_t n, const void *weight, ptrdiff_t count, const int64_t *rows,
                     const void *above, const void *below, void *up, void *down);

/* The way back through a dense layer for several targets, each row read once.
 *   positive, negative  real (targets, count): shares of the outputs `rows`, for terms >= 0 and for those <= 0
 *   up    real (targets, n): ADDED to: W+^T positive + W-^T negative;  to be multiplied by `above`
 *   down  real (targets, n) or NULL: ADDED to: W-^T positive + W+^T negative;  by `below` */
int fvlrp_dense_back(int real, ptrdiff_t targets, ptrdiff_t m, ptrdiff_t n, const void *weight, ptrdiff_t count,
                     const int64_t *rows, const void *positive, const void *negative, void *up, void *down);

/* Both, with the alpha-beta rule between them, so that memory is read once: z+ and z- are the sums and their biases,
 * the shares alpha r / z+ and -beta r / z-, 0 where a denominator is 0.
 *   bias  real (count), of these outputs, or NULL;   r  real (targets, count)
 *   kept  double (targets): what the biases take;   lost  double (targets): what vanishes with denominators of 0 */
int fvlrp_dense_alpha_beta(int real, ptrdiff_t targets, ptrdiff_t m, ptrdiff_t n, const void *weight, ptrdiff_t count,
                           const int64_t *rows, const void *above, const void *below, const void *bias, const void *r,
                           double alpha, double beta, void *up, void *down, double *kept, double *lost);

/* Shares of the alpha-beta rule: alpha r / z+ and -beta r / z-, with z- = z - z+ and 0 where a denominator is 0.
 *   r         real (targets, m, n), targets `pitch` and rows ldr apart
 *   z         real (m, n), rows ldz apart; or NULL where beta = 0 and z+ is a sum of its own terms
 *   positive  real (m, n): z+
 *   up, down  real (targets, m, n): the shares; `down` is not written where beta = 0
 *   kept      double (2, targets, m): sums of up and of down over n
 *   lost      double (targets): what vanishes with denominators of 0
 *   doubtful  int64 (capacity): positions in (m, n) with relevance where z+, or -z- with beta > 0, is no number or
 *             below `weak` of the other, so that it may be rounding alone: their shares are 0, the caller sums their
 *             terms. `count` is how many there are, also where that exceeds the capacity. */
int fvlrp_alpha_beta(int real, ptrdiff_t targets, ptrdiff_t m, ptrdiff_t n, const void *r, ptrdiff_t pitch,
                     ptrdiff_t ldr, const void *z, ptrdiff_t ldz, const void *positive, double alpha, double beta,
                     double weak, void *up, void *down, double *kept, double *lost, ptrdiff_t capacity,
                     int64_t *doubtful, ptrdiff_t *count);

/* Largest pixel of each window inside the image; -infinity where there is none; what is not a number wins.
 *   image  real (channels, height, width);   out  real (channels, rows, cols) */
int fvlrp_max_pool(int real, const fvlrp_windows *windows, const void *image, void *out);

/* Relevance r, real (targets, channels, rows, cols), to the first pixel of each window, row by row, that equals the
 * window's maximum: ADDED to out, real (targets, channels, height, width).
 *   maxima  real (channels, rows, cols): what fvlrp_max_pool gives */
int fvlrp_max_pool_back(int real, const fvlrp_windows *windows, const void *image, const void *maxima,
                        ptrdiff_t targets, const void *r, void *out);

#ifdef __cplusplus
}
#endif
#endif
