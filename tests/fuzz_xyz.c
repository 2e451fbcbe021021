/* fuzz_xyz.c - any bytes as extended xyz: an error or configurations */
#define EQNN_IMPLEMENTATION
#include "../eqnn_data.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static eqnn_ctx *c;
    if (!c) c = eqnn_make(NULL);
    eqnn_frames *m = eqnn_xyz_parse(c, data, size);
    if ((m == NULL) != (eqnn_error(c) != NULL)) abort();
    if (m && (m->count < 1 || m->first[m->count] != m->atoms)) abort();
    for (int i = 0; m && i < m->atoms; i++)
        if (m->charge[i] < 1 || m->charge[i] > 118 || !isfinite(m->pos[3 * i])) abort();
    eqnn_frames_free(m);
    eqnn_clear(c);
    return 0;
}
