/* fuzz_npz.c - any bytes as an npz or npy file: an error or numbers, never a crash */
#define EQNN_IMPLEMENTATION
#include "../eqnn_data.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static eqnn_ctx *c;
    double sum = 0;
    if (!c) c = eqnn_make(NULL);
    eqnn_npz *z = eqnn_npz_parse(c, data, size);
    for (int i = 0; i < eqnn_npz_count(z); i++) {
        const eqnn_array *a = eqnn_npz_at(z, i);
        for (size_t k = 0; a->values && k < a->count; k++) sum += a->values[k];
    }
    eqnn_npz_close(z);
    eqnn_clear(c);
    (void)sum;
    return 0;
}
