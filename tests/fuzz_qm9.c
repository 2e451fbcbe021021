/* fuzz_qm9.c - any bytes as .xyz files of QM9 or an archive of them: an error or molecules */
#define EQNN_IMPLEMENTATION
#include "../eqnn_data.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static eqnn_ctx *c;
    static double out[4096];
    if (!c) c = eqnn_make(NULL);
    eqnn_molecules *m = eqnn_qm9_parse(c, data, size);
    if ((m == NULL) != (eqnn_error(c) != NULL)) abort();
    if (m && (m->count < 1 || m->first[m->count] != m->atoms)) abort();
    if (m && m->count < 4096) eqnn_qm9_target(c, m, "U0", out, NULL);
    eqnn_molecules_free(m);
    eqnn_clear(c);
    return 0;
}
