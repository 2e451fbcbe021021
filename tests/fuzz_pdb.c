/* fuzz_pdb.c - any bytes as a PDB file: an error or residues with finite atoms */
#define EQNN_IMPLEMENTATION
#include "../eqnn_data.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static eqnn_ctx *c;
    if (!c) c = eqnn_make(NULL);
    eqnn_proteins *m = eqnn_pdb_parse(c, data, size), *two;
    if ((m == NULL) != (eqnn_error(c) != NULL)) abort();
    if (m && (m->chains < 1 || m->residues < m->chains)) abort();
    if (m && m->first[m->chains] != m->residues) abort();
    for (int i = 0; m && i < m->residues; i++) {
        if (m->kind[i] < 0 || m->kind[i] > 20) abort();
        for (int k = 0; k < 9; k++)
            if (!isfinite(m->pos[12 * i + k])) abort();
    }
    for (int i = 0; m && i < m->chains; i++)
        if (m->first[i] >= m->first[i + 1] || strlen(m->name[i]) > 6) abort();
    two = m ? eqnn_proteins_join(c, m, m) : NULL;
    if (m && (!two || two->first[two->chains] != 2 * m->residues)) abort();
    eqnn_proteins_free(m);
    eqnn_proteins_free(two);
    eqnn_clear(c);
    return 0;
}
