/* fvlrp.h - the kernels of fvlrp: what they compute, on which arrays, and what they return.
 *
 * This header is the manual. The kernels are C11 and libm only: single-threaded and re-entrant, no state but the
 * dispatch table that fvlrp_select() fills, no printing, no abort. Several threads may run them at once on separate
 * bands of rows. Every kernel has a slow NumPy twin in tests/reference.py.
 *
 * Conventions
 *   - A kernel takes one struct, named after it (fvlrp_pool takes fvlrp_pool_args), and returns a status: FVLRP_OK or
 *     a negative number, which fvlrp_words() describes. After an error the contents of the outputs are undefined.
 *   - Fields that are not set are 0 or NULL. A pointer may be NULL only where its comment says so.
 *   - Arrays are C-contiguous, rows (y) before columns (x). Sizes and strides are counted in elements.
 *   - "real" arrays are float or double, as the field `real` says (FVLRP_F32 or FVLRP_F64).
 *   - Sums over descriptors are double whatever the real type: they are ill-conditioned.
 *   - Results do not depend on how rows are cut into bands.
 *
 * Symbols: K components, D dimensions of a projected descriptor. x is a SIFT descriptor of 128 values, 4 x 4 spatial
 * bins (y outer) x 8 orientations: value 32 iy + 8 ix + o. y = P (x - m) is its projection; pi, mu and sigma belong to
 * the mixture. n is a number of descriptors or of pixels.
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
    FVLRP_E_ARGUMENT = -1, /* a size, type or option is outside its range */
    FVLRP_E_MEMORY = -2,   /* scratch memory could not be allocated */
    FVLRP_E_FULL = -3,     /* an output array is full; *done says how many rows are finished */
    FVLRP_E_ISA = -4       /* this build or this processor lacks the instruction set, or none has been selected */
};

enum { FVLRP_U8 = 1, FVLRP_F32 = 4, FVLRP_F64 = 8 }; /* element types; the value is the size in bytes */

/* One sentence for a status. Never NULL. */
const char *fvlrp_words(int status);

/* Fill the dispatch table. `isa` is "v2", "v3" or "v4" (x86-64 levels), "vnni" (v4 with dot products of bytes) or
 * "generic"; NULL or "" selects the best that this processor supports. Call it before any kernel, and not while one
 * runs. */
int fvlrp_select(const char *isa);

/* The selected instruction set ("none" before fvlrp_select), and the i-th one, best first, that both this build and
 * this processor support (NULL past the last). */
const char *fvlrp_isa(void);
const char *fvlrp_isa_available(int i);

/* ---- dense SIFT (VLFeat's geometry) ---------------------------------------------------------------------------- */

enum { FVLRP_WINDOW_FLAT = 0, FVLRP_WINDOW_GAUSSIAN = 1 };
enum { FVLRP_ANGLES_VLFEAT = 0, FVLRP_ANGLES_EXACT = 1 };

/* One scale: a regular grid of rows x cols descriptors ("frames"). The top-left bin centre of frame k lies at
 * first + step k on either axis. All bin centres lie inside the height x width image. */
typedef struct fvlrp_scale {
    ptrdiff_t height, width;
    ptrdiff_t first, step, rows, cols;
    ptrdiff_t bin_size;        /* pixels between bin centres */
    int window;                /* FVLRP_WINDOW_* */
    int angles;                /* FVLRP_ANGLES_*: VLFeat's polynomial for atan2 (cubic), or atan2f */
    double sigma;              /* standard deviation, in pixels, of the Gaussian that smooths the image: bin_size / 6 */
    double window_size;        /* standard deviation, in bin sizes, of the Gaussian window: 1.5 */
    double contrast_threshold; /* mean gradient magnitude below which a descriptor is zeroed: 0.005 */
} fvlrp_scale;

/* Descriptors of the frame rows begin .. end - 1 of one scale.
 *
 * A pixel p spreads its gradient magnitude linearly over 8 orientation planes, G_o(p) >= 0. A bin centre c collects
 *     h_o(c) = w_iy w_ix sum_p tri(p_y - c_y) tri(p_x - c_x) G_o(p),    tri(t) = 1 - |t| / bin_size,
 * with replicated borders. Then: L2-normalise, clip at 0.2, L2-normalise, times 512, clip at 255. */
typedef struct fvlrp_sift_args {
    fvlrp_scale scale;
    const float *image; /* (height, width): grey in 0..1, not smoothed */
    ptrdiff_t begin, end;
    int type;           /* of values: FVLRP_U8 (truncated) or FVLRP_F32, both on 0..255 */
    void *values;       /* (rows, cols, 128): only rows begin .. end - 1 are written */
    uint8_t *zeroed;    /* (rows, cols): 1 where the contrast is 0 or below the threshold, so that all values are 0; may
                         * be NULL */
} fvlrp_sift_args;
int fvlrp_sift(const fvlrp_sift_args *args);

/* Depth "gradient": relevance of the descriptors' values down to pixels, through the same planes. With
 * q_o(c) = R_o(c) / h_o(c),
 *     R_p = sum_o G_o(p) sum_c tri(p - c) q_o(c).
 * What a replicated border pixel receives goes to the pixel it copies. Up to rounding in the real type,
 * sum(pixels) + zero_bin = sum(relevance). Each pixel receives one addition. */
typedef struct fvlrp_sift_pixels_args {
    fvlrp_scale scale;
    const float *image;    /* (height, width) */
    int real;
    const void *relevance; /* real (rows, cols, 128) */
    double *pixels;        /* (height, width): ADDED to */
    double *zero_bin;      /* ADDED to: relevance of values whose bin holds no gradient (h = 0) and so has no pixels */
} fvlrp_sift_pixels_args;
int fvlrp_sift_pixels(const fvlrp_sift_pixels_args *args);

/* ---- projection and diagonal Gaussian mixture ------------------------------------------------------------------ */

/* A projection and a mixture, packed for the selected instruction set: the first argument of the kernels below. */
typedef struct fvlrp_model {
    int real;             /* type of the packed tables and of the arithmetic */
    ptrdiff_t inputs;     /* values of a descriptor (128), or 0 for a mixture alone */
    ptrdiff_t dims;       /* D */
    ptrdiff_t stride;     /* D rounded up to a multiple of 16: row length of y and tables; the padding is 0 */
    ptrdiff_t components; /* K, or 0 for a projection alone */
    double gate;          /* posteriors below it count as 0, in encoding and in relevance alike */
    const struct fvlrp_model_tables *tables; /* private: fisher/model.h */
} fvlrp_model;

/* Pack a model. Its tables live in `block`, which the caller owns. */
typedef struct fvlrp_model_pack_args {
    int real;
    ptrdiff_t inputs, dims, components;
    const double *basis;     /* (D, inputs): rows of the projection; may be NULL where inputs = 0 */
    const double *mean;      /* (inputs): subtracted before projecting; may be NULL */
    const double *priors;    /* (K);  these three may be NULL where components = 0 */
    const double *means;     /* (K, D) */
    const double *variances; /* (K, D) */
    double gate;
    void *block;             /* fvlrp_model_bytes(args) bytes, of any alignment */
    fvlrp_model *model;      /* written */
} fvlrp_model_pack_args;
int fvlrp_model_pack(const fvlrp_model_pack_args *args);

/* Bytes of the block for a model of these sizes and this real type; 0 where they are out of range. Other fields are not
 * read. */
size_t fvlrp_model_bytes(const fvlrp_model_pack_args *args);

/* The descriptors of a call: x[rows[0]], ..., x[rows[n - 1]], or x[0 .. n - 1] where rows is NULL. */
typedef struct fvlrp_descriptors {
    int type;            /* of x: FVLRP_U8, FVLRP_F32 or FVLRP_F64 */
    const void *x;       /* (any, inputs) */
    const int64_t *rows; /* (n); may be NULL */
    ptrdiff_t n;
} fvlrp_descriptors;

/* Gated posteriors of n rows in compressed sparse row (CSR) form: row i has entries indptr[i] .. indptr[i + 1] - 1. */
typedef struct fvlrp_csr {
    int64_t *indptr; /* (n + 1) */
    uint16_t *index; /* (capacity): the component of each entry, ascending within a row */
    void *gamma;     /* real (capacity): its posterior */
} fvlrp_csr;

/* Moments of z = (y - mu_k) / sigma_k over some rows. */
typedef struct fvlrp_moments {
    double *s0; /* (K): sum gamma */
    double *s1; /* (K, D): sum gamma z */
    double *s2; /* (K, D): sum gamma z^2 */
} fvlrp_moments;

/* y = P (x - m). */
typedef struct fvlrp_project_args {
    const fvlrp_model *model;
    fvlrp_descriptors descriptors;
    void *y; /* real (n, stride) */
} fvlrp_project_args;
int fvlrp_project(const fvlrp_project_args *args);

/* Gated posteriors gamma_k = pi_k N(y; mu_k, diag sigma_k^2) / sum_j ... of projected descriptors: a gamma below the
 * gate becomes 0 and is not stored; the others are not renormalised. Writes csr.indptr[1 .. n], reads csr.indptr[0]:
 * the entry to start from. With FVLRP_E_FULL the caller makes room and resumes at row *done. */
typedef struct fvlrp_posteriors_args {
    const fvlrp_model *model;
    const void *y;      /* real (n, stride) */
    ptrdiff_t n;
    fvlrp_csr csr;
    ptrdiff_t capacity; /* of csr.index and csr.gamma */
    double *loglik;     /* (n): log sum_k pi_k N(y; ...); may be NULL */
    ptrdiff_t *done;    /* how many rows were finished */
} fvlrp_posteriors_args;
int fvlrp_posteriors(const fvlrp_posteriors_args *args);

/* ADD n rows to the moments. Float sums of at most 192 rows are accumulated in double. */
typedef struct fvlrp_pool_args {
    const fvlrp_model *model;
    const void *y; /* real (n, stride) */
    ptrdiff_t n;
    fvlrp_csr csr;
    fvlrp_moments moments;
} fvlrp_pool_args;
int fvlrp_pool(const fvlrp_pool_args *args);

/* The three above in one pass over tiles of rows that stay in cache: descriptors in, moments out. The CSR arrays are
 * kept for fvlrp_relevance, and y may be. FVLRP_E_FULL and *done as in fvlrp_posteriors. */
typedef struct fvlrp_encode_args {
    const fvlrp_model *model;
    fvlrp_descriptors descriptors;
    void *y;               /* real (n, stride) */
    fvlrp_csr csr;
    ptrdiff_t capacity;
    fvlrp_moments moments; /* ADDED to */
    ptrdiff_t *done;
} fvlrp_encode_args;
int fvlrp_encode(const fvlrp_encode_args *args);

/* ---- relevance of descriptors (Eqs. 5-6, then Eq. 1 through the projection) ------------------------------------ */

enum { FVLRP_MEAN_NONE = 0, FVLRP_MEAN_CENTERED = 1, FVLRP_MEAN_BIAS = 2 };

/* Coefficient tables of one finest pyramid cell, from the shares G = R / (S + epsilon sgn S) of the pyramid cells that
 * contain it: for each component and dimension the polynomial c0 + c1 y + c2 y^2 that Eqs. 5-6 amount to. */
typedef struct fvlrp_tables_args {
    const fvlrp_model *model;
    ptrdiff_t cells;
    const double *shares;     /* (cells, 2, K, D): first-order block, then second-order block */
    const uint8_t *member;    /* (cells): 1 for the cells that contain this finest cell */
    const double *priors;     /* (K) */
    const double *means;      /* (K, D) */
    const double *deviations; /* (K, D) */
    void *tables;             /* real (K, 3, stride) */
} fvlrp_tables_args;
int fvlrp_tables(const fvlrp_tables_args *args);

/* Relevance of the encoded descriptors of one finest pyramid cell, for several targets at once.
 *     R_li = sum_k gamma_k (a_ki z + b_ki (z^2 - 1)),  z = (y_li - mu_ki) / sigma_ki               (Eqs. 5-6)
 *     R_l,in = sum_i P_i,in xhat_in R_li / (z_i + epsilon sgn z_i),  z_i = sum_in P_i,in xhat_in   (Eq. 1)
 * with xhat = x, or x - m for FVLRP_MEAN_CENTERED; FVLRP_MEAN_BIAS divides by y instead of z. sgn(0) = +1; with
 * epsilon = 0, 0/0 = 0.
 *
 * Any output may be NULL. Descriptor i of the call goes to row rows[i] (i where rows is NULL) of every array; the
 * arrays of the targets follow one another, `pitch` rows apart. */
typedef struct fvlrp_relevance_args {
    const fvlrp_model *model;
    fvlrp_descriptors descriptors;
    const void *y;      /* real (n, stride); if NULL, descriptors are projected again, with bit-identical results */
    fvlrp_csr csr;
    ptrdiff_t targets;
    const void *tables; /* real (targets, K, 3, stride), from fvlrp_tables; accessed at random: fastest if aligned to a
                         * cache line */
    double epsilon;
    int mean;           /* FVLRP_MEAN_* */
    ptrdiff_t pitch;
    double *total;      /* (targets, pitch): sum over dimensions */
    void *pca;          /* real (targets, pitch, D): per projected dimension */
    void *bins;         /* real (targets, pitch, 16): per spatial bin */
    void *sift;         /* real (targets, pitch, 128): per descriptor value */
    double *absorbed;   /* (targets): ADDED to: what the stabiliser absorbs; with epsilon = 0, what 0/0 = 0 drops */
    double *bias;       /* (targets): ADDED to: what the mean absorbs under FVLRP_MEAN_BIAS */
} fvlrp_relevance_args;
int fvlrp_relevance(const fvlrp_relevance_args *args);

/* ---- the whole Fisher vector ----------------------------------------------------------------------------------- */

/* Moments of some descriptors of one finest cell, from fvlrp_encode or fvlrp_pool. They count `times` times: zeroed
 * descriptors are identical, so one can represent many. */
typedef struct fvlrp_part {
    ptrdiff_t finest;
    double times;
    fvlrp_moments moments;
} fvlrp_part;

/* Sums of Psi (Eqs. 3-4) over pyramid cells, each a union of finest cells. Parts are added in the order given. */
typedef struct fvlrp_merge_args {
    ptrdiff_t parts, finest, cells, components, dims;
    const fvlrp_part *part; /* (parts) */
    const uint8_t *member;  /* (finest, cells): 1 for the cells that contain a finest cell */
    const double *priors;   /* (K) */
    double *sums;           /* (cells, 2, K, D): sum gamma z / sqrt(pi), then sum gamma (z^2 - 1) / sqrt(2 pi) */
    double *occupancy;      /* (cells, K): sum gamma */
} fvlrp_merge_args;
int fvlrp_merge(const fvlrp_merge_args *args);

/* Encodings of some descriptors: row r has projection y[r] and the entries begin[r] .. end[r] - 1. */
typedef struct fvlrp_encoded {
    ptrdiff_t rows, entries;
    const float *y;             /* (rows, stride) */
    const int64_t *begin, *end; /* (rows) */
    const uint16_t *index;      /* (entries): components */
    const float *gamma;         /* (entries): posteriors */
} fvlrp_encoded;

/* ADD to the sums the Psi (Eqs. 3-4) of n descriptors less what their Psi was before. In double: a descriptor that is
 * put back leaves no more behind than the rounding of double. For pixel flipping, where few descriptors change. */
typedef struct fvlrp_exchange_args {
    const fvlrp_model *model;      /* of doubles */
    ptrdiff_t n, groups, levels, cells;
    const int64_t *rows;           /* (n): row of each descriptor in `before` */
    const int64_t *group;          /* (n): its group */
    const int64_t *group_cells;    /* (groups, levels): cells that the descriptors of a group lie in */
    fvlrp_encoded before, after;   /* row i of `after` is the i-th descriptor */
    const double *priors;          /* (K) */
    double *sums;                  /* (cells, 2, K, D): ADDED to */
    uint8_t *stale;                /* (cells, K): set to 1 where sums have changed */
} fvlrp_exchange_args;
int fvlrp_exchange(const fvlrp_exchange_args *args);

/* What the score w . x of a normalised Fisher vector needs of its blocks, a component in a cell: with x = factor times
 * sgn(S) sqrt|S|, one factor a block, w . x is the sum of factor times product. Computes stale blocks alone. */
typedef struct fvlrp_roots_args {
    ptrdiff_t cells, components, dims;
    const double *sums;  /* (cells, 2, K, D) */
    const float *coef;   /* (cells, 2, K, D): w */
    uint8_t *stale;      /* (cells, K): 1 for the blocks to compute; set to 0 */
    double *squares;     /* (cells, K): sum S^2 over both orders */
    double *sizes;       /* (cells, K): sum |S| */
    double *products;    /* (cells, K): sum w sgn(S) sqrt|S|, of float products */
} fvlrp_roots_args;
int fvlrp_roots(const fvlrp_roots_args *args);

/* Dot products of x with n rows of coef. Float sums of 2048 products are accumulated in double. */
typedef struct fvlrp_scores_args {
    ptrdiff_t n, length;
    const float *coef; /* (n, length) */
    const float *x;    /* (length) */
    double *out;       /* (n) */
} fvlrp_scores_args;
int fvlrp_scores(const fvlrp_scores_args *args);

/* Improved Fisher vector: L2 norm per cell, signed square root, one L2 norm over all. Norms are at least 1e-12. */
typedef struct fvlrp_normalise_args {
    ptrdiff_t cells, length;
    const double *sums; /* (cells, length) */
    double *x;          /* (cells, length) */
} fvlrp_normalise_args;
int fvlrp_normalise(const fvlrp_normalise_args *args);

/* The same with intra-normalisation: signed square root, L2 norm per cell and component over both orders, one L2 norm
 * over all. Norms are at least sqrt(least), which damps components with almost no posterior mass in a cell. */
typedef struct fvlrp_normalise_intra_args {
    ptrdiff_t cells, components, dims;
    double least;       /* of a component's sum of |S|; > 0 */
    const double *sums; /* (cells, 2, components, dims) */
    double *x;          /* (cells, 2, components, dims) */
} fvlrp_normalise_intra_args;
int fvlrp_normalise_intra(const fvlrp_normalise_intra_args *args);

/* Shares G = R / (S + epsilon sgn S), sgn(0) = +1, the weights of Psi in Eqs. 5-6. */
typedef struct fvlrp_shares_args {
    ptrdiff_t cells, length;
    const double *relevance; /* (cells, length) */
    const double *sums;      /* (cells, length) */
    const int64_t *counts;   /* (cells): descriptors in each cell; the shares of an empty one are 0 */
    const double *epsilon;   /* (cells) */
    const double *spread;    /* (cells, length): sums within 1e-12 of it count as 0; may be NULL */
    double *out;             /* (cells, length); may be relevance itself */
    double *ledger;          /* (3): R epsilon / (|S| + epsilon) summed where S != 0; R of empty cells; R where S = 0
                              * elsewhere */
} fvlrp_shares_args;
int fvlrp_shares(const fvlrp_shares_args *args);

/* ---- splat ----------------------------------------------------------------------------------------------------- */

/* Spread the values of one scale over pixels, each over a separable kernel around its own point:
 *     pixels[y, x] += sum_p values[p] weight_y[p] weight_x[p] taps[y - y_p - lead] taps[x - x_p - lead].
 * Value (r, c, iy, ix) lies at y_p = first + step r + spacing iy, x_p = first + step c + spacing ix, inside the image.
 */
typedef struct fvlrp_splat_args {
    int real;
    const void *values;     /* real (rows, cols, bins, bins): bins = 4 for spatial bins, 1 for whole descriptors */
    ptrdiff_t rows, cols, bins, spacing, first, step;
    const double *weight_y; /* (rows, bins): normalisation of a support that the border clips */
    const double *weight_x; /* (cols, bins) */
    const double *taps;     /* (length): the kernel of either axis */
    ptrdiff_t length, lead; /* lead: offset of the first tap from the point */
    ptrdiff_t height, width;
    double *pixels;         /* (height, width): ADDED to; what falls outside is dropped */
} fvlrp_splat_args;
int fvlrp_splat(const fvlrp_splat_args *args);

/* ---- dense products and convolutions --------------------------------------------------------------------------- */

/* The windows of an image as a matrix: row (channel, ky, kx), column (oy, ox) holds the pixel
 * y = (first + oy) stride_y + ky dilation_y - top, x = ox stride_x + kx dilation_x - left, or 0 outside the image. */
typedef struct fvlrp_windows {
    ptrdiff_t channels, height, width; /* of the image */
    ptrdiff_t kernel_y, kernel_x, stride_y, stride_x, dilation_y, dilation_x;
    ptrdiff_t top, left;         /* padding before the image; may be negative, which crops it */
    ptrdiff_t first, rows, cols; /* the output rows first .. first + rows - 1, of `cols` pixels each */
} fvlrp_windows;

/* Weights as they are, max(w, 0), min(w, 0), or |w|. NaN stays NaN. */
enum { FVLRP_ALL = 0, FVLRP_POSITIVE = 1, FVLRP_NEGATIVE = -1, FVLRP_SIZE = 2 };

/* Weights (m, channels, taps) of any strides: (i, c, t) is at a[i row + c channel + t tap]. Strides may be negative. */
typedef struct fvlrp_weights {
    const void *a;
    ptrdiff_t m, channels, taps;
    ptrdiff_t row, channel, tap;
    int sign; /* FVLRP_ALL, or the part of the weights to use instead */
} fvlrp_weights;

/* C = A B + bias, or C += A B + bias; A is (m, k) with k = channels taps. B is a matrix, or the windows of an image. */
typedef struct fvlrp_product_args {
    int real;
    fvlrp_weights weights;        /* real; fastest with contiguous rows (channel = taps, tap = 1) and FVLRP_ALL */
    ptrdiff_t n;
    const void *b;                /* real (k, n), rows ldb apart; or the image of `windows` */
    ptrdiff_t ldb;                /* not used with windows */
    const fvlrp_windows *windows; /* may be NULL */
    const void *bias;             /* real (m); may be NULL */
    int add;
    void *c;                      /* real (m, n), rows ldc apart; overlaps no input */
    ptrdiff_t ldc;
    const double *bounds;         /* (2): results are clipped to bounds[0] .. bounds[1] at last; may be NULL */
} fvlrp_product_args;
int fvlrp_product(const fvlrp_product_args *args);

/* The same in float for 3 x 3 windows of stride 1 without dilation, by Winograd's F(4 x 4, 3 x 3): a quarter of the
 * multiplications, two to four times the rounding error of fvlrp_product.
 *
 * A tile is 4 x 4 output pixels, counted from the first one, and the 6 x 6 input pixels under it. A NaN pixel makes all
 * of its tiles NaN, not only the windows that contain it. */
typedef struct fvlrp_winograd_args {
    fvlrp_weights weights; /* float, taps = 9 */
    fvlrp_windows windows;
    const float *image;    /* (channels, height, width) */
    const float *other;    /* the same, or NULL: a second image, for the weights of the opposite sign. FVLRP_POSITIVE
                            * gives max(A, 0) windows(image) + min(A, 0) windows(other), FVLRP_NEGATIVE the reverse */
    const float *bias;     /* (m); may be NULL */
    int add;
    double doubt;          /* 0, or a tolerance for sums of terms of one sign: results below `doubt` times the sum over
                            * channels of max |image| (a tile's pixels) times max |a| (a filter's taps) may be rounding
                            * error of the transforms. They become NaN, and the caller recomputes them. With 1e-3 the
                            * relative error of the others is about 1e-3 */
    const float *whole;    /* (m, rows cols), rows ldw apart: with doubt > 0, the same holds for whole - C, and with
                            * FVLRP_SIZE for whole + C; may be NULL */
    ptrdiff_t ldw;
    float *c;              /* (m, rows cols), rows ldc apart */
    ptrdiff_t ldc;
} fvlrp_winograd_args;
int fvlrp_winograd(const fvlrp_winograd_args *args);

/* Convolutions in groups of few channels, mostly depthwise (one channel in, one or more out). The weights are the first
 * group's, with m outputs and `channels` inputs; those of the next group start `group` elements later. */
typedef struct fvlrp_grouped_args {
    int real;
    ptrdiff_t groups, group;
    fvlrp_weights weights; /* real */
    fvlrp_windows windows; /* channels = groups weights.channels */
    const void *image;     /* real (channels, height, width) */
    const void *other;     /* the same, or NULL: as in fvlrp_winograd */
    const void *bias;      /* real (groups m); may be NULL */
    int add;
    void *c;               /* real (groups m, rows cols), rows ldc apart */
    ptrdiff_t ldc;
    const double *bounds;  /* (2): results are clipped to bounds[0] .. bounds[1] at last; may be NULL */
} fvlrp_grouped_args;
int fvlrp_grouped(const fvlrp_grouped_args *args);

/* The adjoint: shares of the outputs to the pixels that their windows see, through the weights. */
typedef struct fvlrp_grouped_back_args {
    int real;
    ptrdiff_t groups, group;
    fvlrp_weights weights; /* as above; FVLRP_POSITIVE gives max(A, 0)^T share + min(A, 0)^T other */
    fvlrp_windows windows;
    const void *share;     /* real (groups m, rows, cols) */
    const void *other;     /* the same, or NULL */
    void *out;             /* real (channels, height, width): ADDED to */
} fvlrp_grouped_back_args;
int fvlrp_grouped_back(const fvlrp_grouped_back_args *args);

/* ---- relevance of dense layers and pools ----------------------------------------------------------------------- */

/* Some outputs of a dense layer. Kernels that take them read each row of weights once. */
typedef struct fvlrp_outputs {
    int real;
    const void *weight; /* real (m, n) */
    ptrdiff_t m, n;
    const int64_t *rows; /* (count): the outputs, each in 0 .. m - 1 */
    ptrdiff_t count;
} fvlrp_outputs;

/* Sums of the terms w x >= 0 of some outputs, and of those <= 0: with above = max(x, 0) and below = min(x, 0),
 *     up = W+ above + W- below,    down = W- above + W+ below
 * are z+ and z-, biases aside. */
typedef struct fvlrp_dense_sums_args {
    fvlrp_outputs outputs;
    const void *above; /* real (n) */
    const void *below; /* real (n); may be NULL: none */
    void *up, *down;   /* real (count) */
} fvlrp_dense_sums_args;
int fvlrp_dense_sums(const fvlrp_dense_sums_args *args);

/* Backward pass of a dense layer, for several targets:
 *     up += W+^T positive + W-^T negative,    down += W-^T positive + W+^T negative,
 * which the caller multiplies by `above` and `below`. */
typedef struct fvlrp_dense_back_args {
    fvlrp_outputs outputs;
    ptrdiff_t targets;
    const void *positive; /* real (targets, count): the outputs' shares for terms >= 0 */
    const void *negative; /* real (targets, count): and for terms <= 0 */
    void *up;             /* real (targets, n): ADDED to */
    void *down;           /* real (targets, n): ADDED to; may be NULL */
} fvlrp_dense_back_args;
int fvlrp_dense_back(const fvlrp_dense_back_args *args);

/* fvlrp_dense_sums, the alpha-beta rule and fvlrp_dense_back in one pass over the weights. z+ and z- are the sums plus
 * the biases of their sign; the shares are alpha r / z+ and -beta r / z-, 0 where a denominator vanishes. */
typedef struct fvlrp_dense_alpha_beta_args {
    fvlrp_outputs outputs;
    const void *above, *below; /* as in fvlrp_dense_sums */
    const void *bias;          /* real (count), of these outputs; may be NULL */
    ptrdiff_t targets;
    const void *r;             /* real (targets, count) */
    double alpha, beta;
    void *up, *down;           /* as in fvlrp_dense_back */
    double *kept;              /* (targets): relevance of the biases */
    double *lost;              /* (targets): relevance dropped where a denominator vanishes */
} fvlrp_dense_alpha_beta_args;
int fvlrp_dense_alpha_beta(const fvlrp_dense_alpha_beta_args *args);

/* Shares of the alpha-beta rule, alpha r / z+ and -beta r / z- with z- = z - z+, 0 where a denominator vanishes. */
typedef struct fvlrp_alpha_beta_args {
    int real;
    ptrdiff_t targets, m, n;
    const void *r;        /* real (targets, m, n), targets `pitch` and rows ldr apart */
    ptrdiff_t pitch, ldr;
    const void *z;        /* real (m, n), rows ldz apart; may be NULL where beta = 0 and z+ is a sum of its own terms */
    ptrdiff_t ldz;
    const void *positive; /* real (m, n): z+ */
    double alpha, beta;
    double weak;          /* a z+ (with beta > 0, also a -z-) that is NaN or below `weak` times the other may be
                           * rounding error: its shares are 0, and the caller recomputes those listed in `doubtful` */
    void *up;             /* real (targets, m, n): shares of terms >= 0 */
    void *down;           /* real (targets, m, n): and of terms <= 0; may be NULL, as with beta = 0 */
    double *kept;         /* (2, targets, m): sums of up and of down over n */
    double *lost;         /* (targets): relevance dropped where a denominator vanishes */
    ptrdiff_t capacity;
    int64_t *doubtful;    /* (capacity): positions in (m, n) with relevance and a doubtful sum */
    ptrdiff_t *count;     /* number of such positions; may exceed the capacity */
    const void *negative; /* real (m, n): z-; may be NULL */
    double gamma;         /* >= 0: the gamma rule, which needs z; only NaN is doubtful. Negative: the alpha-beta rule */
    int halves;           /* 1: write (up + down) / 2 and (up - down) / 2 instead, the factors of x and |x| */
} fvlrp_alpha_beta_args;
int fvlrp_alpha_beta(const fvlrp_alpha_beta_args *args);

/* Which outputs have relevance of any target. */
typedef struct fvlrp_alive_args {
    int real;
    ptrdiff_t targets, m, n;
    const void *r;   /* real (targets, m, n), targets `pitch` apart */
    ptrdiff_t pitch;
    uint8_t *alive;  /* (m): 1 or 0 */
} fvlrp_alive_args;
int fvlrp_alive(const fvlrp_alive_args *args);

/* Relevance of the inputs of a convolution in groups, by either rule: fvlrp_grouped for z+ and z-, from max(x, 0) and
 * min(x, 0) with the biases of their sign, fvlrp_alpha_beta with weak = 0, fvlrp_grouped_back, and products with the
 * inputs, for a few groups at a time. Groups without relevance are skipped. */
typedef struct fvlrp_grouped_alpha_beta_args {
    int real;
    ptrdiff_t groups, group;
    fvlrp_weights weights;     /* as in fvlrp_grouped; the sign is ignored */
    fvlrp_windows windows;
    const void *x;             /* real (channels, height, width) */
    const void *bias;          /* real (groups m); may be NULL */
    ptrdiff_t targets;
    const void *r;             /* real (targets, groups m, rows cols) */
    const void *z;             /* real (groups m, rows cols) */
    double alpha, beta, gamma; /* as in fvlrp_alpha_beta */
    void *out;                 /* real (targets, channels, height, width) */
    double *kept;              /* (targets): relevance of the biases */
    double *lost;              /* (targets): relevance dropped where a denominator vanishes */
} fvlrp_grouped_alpha_beta_args;
int fvlrp_grouped_alpha_beta(const fvlrp_grouped_alpha_beta_args *args);

/* Largest pixel of each window, inside the image; -infinity where a window has none. NaN counts as largest. */
typedef struct fvlrp_max_pool_args {
    int real;
    fvlrp_windows windows;
    const void *image; /* real (channels, height, width) */
    void *out;         /* real (channels, rows, cols) */
} fvlrp_max_pool_args;
int fvlrp_max_pool(const fvlrp_max_pool_args *args);

/* Relevance goes to the first pixel of each window, in row-major order, that equals the window's maximum. */
typedef struct fvlrp_max_pool_back_args {
    int real;
    fvlrp_windows windows;
    const void *image;  /* real (channels, height, width) */
    const void *maxima; /* real (channels, rows, cols): from fvlrp_max_pool */
    ptrdiff_t targets;
    const void *r;      /* real (targets, channels, rows, cols) */
    void *out;          /* real (targets, channels, height, width): ADDED to */
} fvlrp_max_pool_back_args;
int fvlrp_max_pool_back(const fvlrp_max_pool_back_args *args);

enum { FVLRP_MOST_TERMS = 8 };

/* Relevance of the terms x_k of sums z = x_1 + ... by a sign-dependent rule. With p and q the sums of the positive and
 * the negative terms, both nonzero, the alpha-beta rule
 *     R_k = (alpha max(x_k, 0) / p - beta min(x_k, 0) / q) r,
 * or, with gamma >= 0, the gamma rule
 *     R_k = (x_k + gamma max(x_k, 0)) / (z + gamma p) r    where z >= 0,    and with min for max, q for p where z < 0.
 * Terms of one sign take all of r in proportion, terms that are all 0 take it evenly: nothing is lost. */
typedef struct fvlrp_join_args {
    int real;
    ptrdiff_t count;                     /* terms: 1 .. FVLRP_MOST_TERMS */
    ptrdiff_t targets, n;                /* rows of r; sums */
    const void *terms[FVLRP_MOST_TERMS]; /* real (n) each */
    const void *r;                       /* real (targets, n) */
    double alpha, beta;
    double gamma;                        /* negative: alpha and beta count */
    void *out[FVLRP_MOST_TERMS];         /* real (targets, n) each */
} fvlrp_join_args;
int fvlrp_join(const fvlrp_join_args *args);

/* ---- elementwise functions and normalisation of rows ----------------------------------------------------------- */

enum {
    FVLRP_SIGMOID = 0,
    FVLRP_TANH,
    FVLRP_ERF,
    FVLRP_SILU,         /* x sigmoid(x) */
    FVLRP_GELU,         /* x Phi(x) = x / 2 (1 + erf(x / sqrt(2))) */
    FVLRP_GELU_TANH,    /* x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) */
    FVLRP_HARD_SIGMOID, /* clip(x / 6 + 1 / 2, 0, 1) */
    FVLRP_HARD_SWISH,   /* x clip(x / 6 + 1 / 2, 0, 1) */
    FVLRP_FUNCTIONS
};

/* out = f(x), elementwise. The relative error in float is at most 2e-6, also in tails; results below 2e-36 may be 0. */
typedef struct fvlrp_activate_args {
    int real;
    int function;  /* FVLRP_SIGMOID, ... */
    ptrdiff_t n;
    const void *x; /* real (n) */
    void *out;     /* real (n); may be x */
} fvlrp_activate_args;
int fvlrp_activate(const fvlrp_activate_args *args);

/* exp(x) / sum exp(x) of each row. */
typedef struct fvlrp_softmax_args {
    int real;
    ptrdiff_t n, length;
    const void *x; /* real (n, length) */
    void *out;     /* real (n, length); may be x */
} fvlrp_softmax_args;
int fvlrp_softmax(const fvlrp_softmax_args *args);

/* out = (x - mean) inverse weight + bias of each row, inverse = 1 / sqrt(mean of (x - mean)^2 + epsilon). */
typedef struct fvlrp_layer_norm_args {
    int real;
    ptrdiff_t n, length;
    const void *x;        /* real (n, length) */
    const void *weight;   /* real (length); may be NULL: 1 */
    const void *bias;     /* real (length); may be NULL: 0 */
    double epsilon;
    int root_mean_square; /* 1: RMS normalisation, whose mean is 0 */
    void *out;            /* real (n, length); may be x */
    double *mean;         /* (n); may be NULL */
    double *inverse;      /* (n); may be NULL */
} fvlrp_layer_norm_args;
int fvlrp_layer_norm(const fvlrp_layer_norm_args *args);

#ifdef __cplusplus
}
#endif
#endif
