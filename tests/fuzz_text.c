/* fuzz_text.c - any text where the library parses text: irreps, widths, names, patterns. The
   first byte chooses the parser. What is refused leaves a sentence; what is accepted prints and
   parses again. */
#define EQNN_IMPLEMENTATION
#include "../eqnn.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static void require(int condition)
{
    if (!condition) abort();
}

static void irreps(eqnn_ctx *c, const char *text)
{
    const eqnn_irreps *a = eqnn_irreps_make(c, text);
    require((a == NULL) == (eqnn_error(c) != NULL));
    if (!a) return;
    require(a->cols >= 0 && a->copies >= 0);
    require(eqnn_irreps_make(c, a->name) == a);
    eqnn_irreps_sort(c, a, NULL);
    eqnn_irreps_regroup(c, a);
    if (a->cols > 0 && a->cols < 1000)
        require(eqnn_from_e3nn(eqnn_zeros(c, 1, a->cols), a) != NULL || eqnn_error(c) != NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    char text[200];
    eqnn_opts o;
    eqnn_tensor *y = NULL;
    if (size < 1 || size > sizeof text) return 0;
    memcpy(text, bytes + 1, size - 1);
    text[size - 1] = 0;
    memset(&o, 0, sizeof o);
    o.threads = 1;
    o.buffer_size = 1 << 22; /* a memory that ends: sizes in the text may be anything */
    o.buffer = malloc(o.buffer_size);
    eqnn_ctx *c = eqnn_make(&o);
    eqnn_tensor *x = eqnn_full(c, 1, 2, 1);
    switch (bytes[0] % 5) {
    case 0: irreps(c, text); break;
    case 1: y = eqnn_mlp(x, "mlp", text, NULL); require(y || eqnn_error(c)); break;
    case 2: y = eqnn_fc(x, "fc", text, NULL); require(y || eqnn_error(c)); break;
    case 3: y = eqnn_linear(x, text, 2, NULL); require(y || eqnn_error(c)); break;
    default:
        eqnn_linear(x, "ab.abab", 2, NULL);
        eqnn_freeze(c, text, 1);
        eqnn_act_find(c, text);
    }
    eqnn_free(c);
    free(o.buffer);
    return 0;
}
