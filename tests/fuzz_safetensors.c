/* fuzz_safetensors.c - any bytes as a safetensors file: read as a file of tensors, and as a
   checkpoint */
#define _POSIX_C_SOURCE 200809L
#define EQNN_IMPLEMENTATION
#include "../eqnn.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static void require(int condition)
{
    if (!condition) abort();
}

static void read_all(eqnn_ctx *c, const uint8_t *bytes, size_t size)
{
    eqnn_file *f = eqnn_file_parse(c, bytes, size);
    require((f == NULL) == (eqnn_error(c) != NULL));
    for (int i = 0; i < eqnn_file_count(f); i++) {
        const eqnn_entry *e = eqnn_file_entry(f, i);
        require(e->count <= 8 * size && e->dims >= 0 && e->dims <= 8);
        double *values = (double *)malloc((e->count + 1) * sizeof(double));
        int64_t *integers = (int64_t *)malloc((e->count + 1) * sizeof(int64_t));
        require(eqnn_file_find(f, e->name) != NULL);
        eqnn_file_read(f, e, values);
        eqnn_clear(c);
        eqnn_file_read_int(f, e, integers);
        eqnn_clear(c);
        free(values);
        free(integers);
    }
    for (int i = 0; i < eqnn_file_metas(f); i++)
        require(eqnn_file_meta(f, eqnn_file_meta_key(f, i)) != NULL);
    eqnn_file_close(f);
    eqnn_clear(c);
}

static void load(eqnn_ctx *c, const uint8_t *bytes, size_t size)
{
    static char path[64];
    if (!path[0]) snprintf(path, sizeof path, "/tmp/eqnn_fuzz_%ld", (long)getpid());
    FILE *f = fopen(path, "wb");
    if (!f) return;
    fwrite(bytes, 1, size, f);
    fclose(f);
    eqnn_load(c, path, NULL);
    eqnn_adam *adam = eqnn_adam_make(c, NULL);
    eqnn_tensor *y = eqnn_linear(eqnn_full(c, 1, 2, 1), "a", 2, NULL);
    eqnn_backward(eqnn_sum(y));
    eqnn_adam_step(adam);
    remove(path);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    eqnn_opts o;
    memset(&o, 0, sizeof o);
    o.threads = 1;
    eqnn_ctx *c = eqnn_make(&o);
    read_all(c, bytes, size);
    load(c, bytes, size);
    eqnn_free(c);
    return 0;
}
