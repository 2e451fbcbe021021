/* memory.h - tests of memory: allocators that count and fail, and a buffer of the caller's */
#ifndef MEMORY_H
#define MEMORY_H

#include "test.h"

/* ---- an allocator that counts, and fails when it is told to --------------------------------- */

typedef struct counter {
    long calls, fail_at;      /* the call that fails, from 0; negative: none */
    int all_after;            /* and every later one                         */
    long failed;
    size_t bytes;             /* in use                                      */
} counter;

static inline void *count_alloc(void *user, void *old, size_t old_size, size_t new_size)
{
    counter *k = (counter *)user;
    void *p;
    if (new_size == 0) {
        if (old) k->bytes -= old_size;
        free(old);
        return NULL;
    }
    long call = k->calls++;
    if (k->fail_at >= 0 && (call == k->fail_at || (k->all_after && call > k->fail_at))) {
        k->failed++;
        return NULL;
    }
    p = realloc(old, new_size);
    if (p && !old) memset(p, 0x55, new_size); /* new memory holds anything */
    if (p) k->bytes += new_size - (old ? old_size : 0);
    return p;
}

static inline eqnn_ctx *counted_context(counter *k)
{
    eqnn_opts o = test_opts();
    o.alloc = count_alloc;
    o.alloc_user = k;
    return eqnn_make(&o);
}

/* Every single allocation fails once; then every allocation from some point on. The library may do
   with a smaller piece of memory; otherwise there must be a sentence. f gives 1 when all was done;
   nothing leaks. */
static inline void check_leaks(int (*f)(eqnn_ctx *c))
{
    for (int after = 0; after < 2; after++)
        for (long n = 0; test_failures < 10; n++) {
            counter k = { 0, 0, 0, 0, 0 };
            k.fail_at = n;
            k.all_after = after;
            eqnn_ctx *c = counted_context(&k);
            int done = c ? f(c) : 0, good = !c || done == !eqnn_error(c);
            const char *error = c && eqnn_error(c) ? eqnn_error(c) : "none";
            if (!good) printf("    allocation %ld: done %d, error %s\n", n, done, error);
            if (c && k.failed && n % 10 == 0) test_note("%ld: %s", n, error);
            eqnn_free(c);
            if (k.bytes) printf("    allocation %ld: %zu bytes leaked\n", n, k.bytes);
            CHECK(good);
            CHECK(k.bytes == 0);
            if (!k.failed) {
                CHECK(done && k.calls > 0);
                test_note("%ld allocations", k.calls);
                break;
            }
        }
}

/* ---- a fixed buffer -------------------------------------------------------------------------- */

static inline void *no_alloc(void *user, void *old, size_t old_size, size_t new_size)
{
    (void)old;
    (void)old_size;
    if (new_size) ++*(int *)user;
    return NULL;
}

static inline eqnn_ctx *buffer_context(void *buffer, size_t size, int *calls)
{
    eqnn_opts o = test_opts();
    o.buffer = buffer;
    o.buffer_size = size;
    o.alloc = no_alloc;
    o.alloc_user = calls;
    return eqnn_make(&o);
}

/* After some steps the buffer is not used up further. */
static inline void check_buffer(int (*f)(eqnn_ctx *c))
{
    size_t size = (size_t)32 << 20, used = 0;
    int calls = 0;
    void *buffer = malloc(size);
    eqnn_ctx *c = buffer_context(buffer, size, &calls);
    for (int i = 0; i < 60; i++) {
        CHECK(f(c));
        eqnn_reset(c);
        if (i == 30) used = eqnn_memory_use(c).buffer;
    }
    test_note("%zu bytes after 30 steps, %zu after 60", used, eqnn_memory_use(c).buffer);
    CHECK(eqnn_memory_use(c).buffer == used && calls == 0);
    eqnn_free(c);
    free(buffer);
}

#endif
