/* model.c - the packing of a model for the instruction set in use. Included by isa.c once per real type. */

static int R(model_pack)(fvlrp_model *model, const double *basis, const double *mean, const double *priors,
                         const double *means, const double *variances) {
    const ptrdiff_t inputs = model->inputs, dims = model->dims, stride = model->stride, K = model->components;
    int status = FVLRP_E_MEMORY;
    double *table = NULL, *transposed = NULL;

    if (inputs) {
        transposed = calloc((size_t)(inputs * stride), sizeof(double));
        if (!transposed) goto out;
        for (ptrdiff_t d = 0; d < dims; d++)
            for (ptrdiff_t j = 0; j < inputs; j++) transposed[j * stride + d] = basis[d * inputs + j];
        R(pack)(transposed, stride, inputs, stride, model->forward);
#ifdef BY_WHOLE
        whole_pack(model, basis);
#endif
        memset(transposed, 0, (size_t)(inputs * stride) * sizeof(double));
        memcpy(transposed, basis, (size_t)(dims * inputs) * sizeof(double));
        R(pack)(transposed, inputs, stride, inputs, model->backward);
        for (ptrdiff_t j = 0; j < inputs; j++) ((REAL *)model->mean)[j] = mean ? (REAL)mean[j] : (REAL)0;
        memcpy(model->basis, basis, (size_t)(dims * inputs) * sizeof(double));
        for (ptrdiff_t d = 0; d < dims; d++) R(by_orientation)(basis + d * inputs, inputs, (REAL *)model->binned + d * inputs);
    }
    if (K) {
        /* (2 stride, K): quadratic rows, then linear rows; rows of the padding are 0. */
        table = calloc((size_t)(2 * stride * K + K), sizeof(double));
        if (!table) goto out;
        double *offsets = table + 2 * stride * K;
        double *centre = model->centre;
        REAL *origin = model->origin;
        memset(centre, 0, (size_t)(2 * stride + 1) * sizeof(double));
        memset(origin, 0, (size_t)stride * sizeof(REAL));
        for (ptrdiff_t d = 0; d < dims; d++) { /* where the narrowest components lie: their coefficients are the largest */
            double least = INFINITY, weights = 0, sum = 0;
            for (ptrdiff_t k = 0; k < K; k++) least = fmin(least, variances[k * dims + d]);
            for (ptrdiff_t k = 0; k < K; k++) {
                weights += least / variances[k * dims + d];
                sum += least / variances[k * dims + d] * means[k * dims + d];
            }
            origin[d] = (REAL)(sum / weights);
        }
        for (ptrdiff_t k = 0; k < K; k++) {
            double offset = log(priors[k]);
            for (ptrdiff_t d = 0; d < stride; d++) {
                const double mu = d < dims ? means[k * dims + d] : 0, var = d < dims ? variances[k * dims + d] : 1;
                const double from = mu - (double)origin[d];
                table[d * K + k] = d < dims ? -0.5 / var : 0;
                table[(stride + d) * K + k] = from / var;
                offset -= d < dims ? 0.5 * (log(6.283185307179586 * var) + from * from / var) : 0;
                ((REAL *)model->scale)[k * stride + d] = d < dims ? (REAL)(1 / sqrt(var)) : 0;
                ((REAL *)model->shift)[k * stride + d] = (REAL)(-mu / sqrt(var));
            }
            offsets[k] = offset;
            centre[2 * stride] += offset / (double)K;
        }
        for (ptrdiff_t k = 0; k < (K + 63) / 64 * 64; k++)
            ((REAL *)model->offset)[k] = k < K ? (REAL)(offsets[k] - centre[2 * stride]) : -(REAL)INFINITY;
        for (ptrdiff_t row = 0; row < 2 * stride; row++) {
            for (ptrdiff_t k = 0; k < K; k++) centre[row] += table[row * K + k] / (double)K;
            for (ptrdiff_t k = 0; k < K; k++) table[row * K + k] -= centre[row];
        }
        R(pack)(table, K, 2 * stride, K, model->logits);
#ifdef SCREENS
        if (screen_pays(model)) status = screen_pack(model, priors, means, variances, table);
        else status = FVLRP_OK;
        if (status != FVLRP_OK) goto out;
#endif
    }
    status = FVLRP_OK;
out:
    free(table);
    free(transposed);
    return status;
}
