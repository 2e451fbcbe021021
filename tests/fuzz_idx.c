/* fuzz_idx.c - any bytes as an IDX file: an error or numbers, never a crash */
#define EQNN_IMPLEMENTATION
#include "../eqnn_data.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static eqnn_ctx *c;
    double sum = 0;
    if (!c) c = eqnn_make(NULL);
    eqnn_idx *x = eqnn_idx_parse(c, data, size);
    for (size_t i = 0; x && i < x->count; i++) sum += eqnn_idx_value(x, i);
    double *image = x && x->count < 100000 ? (double *)malloc(8 * x->count + 8) : NULL;
    if (image && x->dims == 3 && x->shape[0] < 100000)
        eqnn_images_turned(c, x, 1, 0, (int)x->shape[0], image);
    free(image);
    eqnn_idx_close(x);
    eqnn_clear(c);
    (void)sum;
    return 0;
}
