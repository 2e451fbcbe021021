/* device.h - a device that is no GPU: the processor's kernels on memory the host may not touch

   Its memory lies in one stretch of addresses that only opens while an entry of the table is at
   work, so that a host that reads or writes numbers there is stopped at once; and every array that
   an entry is given must lie there. What a GPU finds late is told late here too. Needs mmap: where
   there is none, DEVICE_TESTS is 0. Include it after eqnn.h with EQNN_IMPLEMENTATION. */
#ifndef EQNN_TEST_DEVICE_H
#define EQNN_TEST_DEVICE_H

#if defined(__unix__) || defined(__APPLE__)
#define DEVICE_TESTS 1
#else
#define DEVICE_TESTS 0
#endif

#if DEVICE_TESTS
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MAP_ANONYMOUS
#define MAP_ANONYMOUS MAP_ANON
#endif
#ifndef MAP_NORESERVE
#define MAP_NORESERVE 0
#endif

#define DEVICE_SPACE ((size_t)1 << (sizeof(size_t) > 4 ? 32 : 28))
typedef struct device_state {
    const eqnn__device *owner; /* which made it; its workers share it                 */
    char *base;
    size_t used, limit;       /* bytes given out, and that may be                     */
    int reserves, releases;   /* calls                                                */
    int sends;                /* the same                                             */
    int waits, reads, writes; /* calls of wait; copies to the host, and from it       */
    int flag;                 /* raised by check, until the next wait                 */
    int64_t step;
    const eqnn_real *bad;
    const char *broken;       /* what the next wait is to say                         */
    int faults;               /* arrays that do not lie where they must               */
    char fault[200];
} device_state;

static device_state *device_of(const eqnn__device *d)
{
    return (device_state *)d->gpu;
}

static void device_protect(const eqnn__device *d, int mode)
{
    device_state *s = device_of(d);
    if (s->used) mprotect(s->base, s->used, mode);
}

static void device_open(const eqnn__device *d)
{
    device_protect(d, PROT_READ | PROT_WRITE);
}

static void device_close(const eqnn__device *d)
{
    device_protect(d, PROT_NONE);
}

/* The same for the pages of one array, as far as it lies there. */
static void device_pages(const eqnn__device *d, const void *p, size_t bytes, int mode)
{
    const device_state *s = device_of(d);
    size_t page = 65536, from = (size_t)((uintptr_t)p - (uintptr_t)s->base);
    if ((uintptr_t)p < (uintptr_t)s->base || from >= s->used || !bytes) return;
    size_t first = from / page * page, last = (from + bytes + page - 1) / page * page;
    mprotect(s->base + first, last - first, mode);
}

static int device_has(const eqnn__device *d, const void *p)
{
    const device_state *s = device_of(d);
    return (uintptr_t)p >= (uintptr_t)s->base && (uintptr_t)p < (uintptr_t)s->base + s->used;
}

static void device_fault(const eqnn__device *d, const char *entry, const char *what)
{
    device_state *s = device_of(d);
    if (!s->faults++)
        snprintf(s->fault, sizeof s->fault, "%s, in %.100s: %s", entry,
                 d->op && *d->op ? *d->op : "no operation", what);
}

/* An array that an entry uses: NULL, or on the device. */
static void device_array(const eqnn__device *d, const char *entry, const void *p)
{
    if (p && !device_has(d, p)) device_fault(d, entry, "an array of the host");
}

/* --- memory --- */

static int device_begin(eqnn__device *d, int index, char *why, size_t size)
{
    if (index > 0) {
        snprintf(why, size, "there is 1 device");
        return 0;
    }
    device_state *s = (device_state *)calloc(1, sizeof *s);
    void *base = mmap(NULL, DEVICE_SPACE, PROT_NONE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (!s || base == MAP_FAILED) {
        free(s);
        snprintf(why, size, "there is no room");
        return 0;
    }
    s->owner = d;
    s->base = (char *)base;
    s->limit = DEVICE_SPACE;
    d->gpu = s;
    return 1;
}

static void device_end(eqnn__device *d)
{
    device_state *s = device_of(d);
    d->gpu = NULL;
    if (s->owner != d) return;
    munmap(s->base, DEVICE_SPACE);
    free(s);
}

static void *device_reserve(eqnn__device *d, size_t bytes)
{
    device_state *s = device_of(d);
    char *p = s->base + s->used;
    size_t whole = (bytes + 65535) / 65536 * 65536;
    if (whole < bytes || whole > s->limit - s->used) return NULL;
    s->used += whole;
    s->reserves++;
    device_pages(d, p, whole, PROT_READ | PROT_WRITE);
    memset(p, 0xff, whole); /* NaN: memory that nothing was written to is found */
    device_pages(d, p, whole, PROT_NONE);
    return p;
}

/* Addresses are not used again, so that a late use of them is found. */
static void device_release(eqnn__device *d, void *p, size_t bytes)
{
    if (!device_has(d, p) || !bytes) device_fault(d, "release", "memory of the host");
    device_of(d)->releases++;
}

static void device_copy(eqnn__device *d, void *to, const void *from, size_t bytes, int way)
{
    uintptr_t a = (uintptr_t)to, b = (uintptr_t)from;
    int near_to = way == EQNN__TO_HOST, near_from = way == EQNN__TO_DEVICE;
    if (device_has(d, to) == near_to || device_has(d, from) == near_from)
        device_fault(d, "copy", "a way that it is not");
    if (way == EQNN__WITHIN && bytes && (a < b ? b - a : a - b) < bytes)
        device_fault(d, "copy", "the two places overlap");
    device_of(d)->reads += way == EQNN__TO_HOST;
    device_of(d)->writes += way == EQNN__TO_DEVICE;
    device_pages(d, to, bytes, PROT_READ | PROT_WRITE);
    device_pages(d, from, bytes, PROT_READ | PROT_WRITE);
    eqnn__cpu.copy(d, to, from, bytes, way);
    device_pages(d, to, bytes, PROT_NONE);
    device_pages(d, from, bytes, PROT_NONE);
}

static void device_fill(eqnn__device *d, size_t n, double value, eqnn_real *x)
{
    device_array(d, "fill", x);
    device_open(d);
    eqnn__cpu.fill(d, n, value, x);
    device_close(d);
}

static int device_wait(eqnn__device *d, char *why, size_t size)
{
    device_state *s = device_of(d);
    const char *broken = s->broken;
    s->waits++;
    d->flag = s->flag;
    d->bad_step = s->step;
    d->bad = s->bad;
    s->flag = 0;
    s->broken = NULL;
    if (broken) snprintf(why, size, "%s", broken);
    return !broken;
}

static void device_send(eqnn__device *d)
{
    device_of(d)->sends++;
}

/* --- kernels: those of the processor, between opening and closing --- */

static void device_map(eqnn__device *d, int op, int order, size_t rows, size_t cols, eqnn__in a,
                       eqnn__in b, eqnn__in c, double p0, double p1, eqnn_real *out)
{
    device_array(d, "map", a.p);
    device_array(d, "map", b.p);
    device_array(d, "map", c.p);
    device_array(d, "map", out);
    device_open(d);
    eqnn__cpu.map(d, op, order, rows, cols, a, b, c, p0, p1, out);
    device_close(d);
}

static void device_random(eqnn__device *d, int kind, uint64_t key, uint64_t tick, size_t n,
                          double p, eqnn_real *out)
{
    device_array(d, "random", out);
    device_open(d);
    eqnn__cpu.random(d, kind, key, tick, n, p, out);
    device_close(d);
}

static void device_check(eqnn__device *d, size_t n, const eqnn_real *x)
{
    device_state *s = device_of(d);
    int flag = d->flag;
    device_array(d, "check", x);
    device_open(d);
    d->flag = 0;
    eqnn__cpu.check(d, n, x);
    for (size_t i = 0; d->flag && !s->flag && i < n; i++)
        if (!(x[i] - x[i] == 0)) {
            s->flag = 1;
            s->step = d->step;
            s->bad = x + i;
        }
    d->flag = flag;
    device_close(d);
}

static void device_fold_rows(eqnn__device *d, int op, size_t rows, size_t cols,
                             const eqnn_real *x, eqnn_real *out)
{
    device_array(d, "fold_rows", x);
    device_array(d, "fold_rows", out);
    device_open(d);
    eqnn__cpu.fold_rows(d, op, rows, cols, x, out);
    device_close(d);
}

static void device_dot_rows(eqnn__device *d, size_t rows, size_t cols, const eqnn_real *x,
                            const eqnn_real *y, eqnn_real *out)
{
    device_array(d, "dot_rows", x);
    device_array(d, "dot_rows", y);
    device_array(d, "dot_rows", out);
    device_open(d);
    eqnn__cpu.dot_rows(d, rows, cols, x, y, out);
    device_close(d);
}

static void device_fold_cols(eqnn__device *d, int op, size_t rows, size_t cols,
                             const eqnn_real *x, eqnn_real *out)
{
    device_array(d, "fold_cols", x);
    device_array(d, "fold_cols", out);
    device_open(d);
    eqnn__cpu.fold_cols(d, op, rows, cols, x, out);
    device_close(d);
}

static void device_fold_segments(eqnn__device *d, int op, size_t n, const int *first,
                                 const int *order, size_t cols, const eqnn_real *x, eqnn_real *out)
{
    device_array(d, "fold_segments", first);
    device_array(d, "fold_segments", order);
    device_array(d, "fold_segments", x);
    device_array(d, "fold_segments", out);
    device_open(d);
    eqnn__cpu.fold_segments(d, op, n, first, order, cols, x, out);
    device_close(d);
}

static void device_total(eqnn__device *d, int squares, size_t n, const eqnn_real *x, double *out,
                         int add)
{
    device_array(d, "total", x);
    device_array(d, "total", out);
    device_open(d);
    eqnn__cpu.total(d, squares, n, x, out, add);
    device_close(d);
}

static void device_softmax(eqnn__device *d, size_t n, const int *first, const int *order,
                           size_t cols, const eqnn_real *x, eqnn_real *out)
{
    device_array(d, "softmax", first);
    device_array(d, "softmax", order);
    device_array(d, "softmax", x);
    device_array(d, "softmax", out);
    device_open(d);
    eqnn__cpu.softmax(d, n, first, order, cols, x, out);
    device_close(d);
}

static void device_largest(eqnn__device *d, size_t n, const int *first, const int *order,
                           size_t cols, const eqnn_real *x, eqnn_real *at, eqnn_real *mask)
{
    device_array(d, "largest", first);
    device_array(d, "largest", order);
    device_array(d, "largest", x);
    device_array(d, "largest", at);
    device_array(d, "largest", mask);
    device_open(d);
    eqnn__cpu.largest(d, n, first, order, cols, x, at, mask);
    device_close(d);
}

static void device_standard(eqnn__device *d, size_t rows, size_t cols, int one, double eps,
                            const eqnn_real *x, const eqnn_real *g, eqnn_real *out)
{
    device_array(d, "standard", x);
    device_array(d, "standard", g);
    device_array(d, "standard", out);
    device_open(d);
    eqnn__cpu.standard(d, rows, cols, one, eps, x, g, out);
    device_close(d);
}

static void device_take_rows(eqnn__device *d, size_t n, size_t cols, const int *index,
                             const eqnn_real *x, eqnn_real *out)
{
    device_array(d, "take_rows", index);
    device_array(d, "take_rows", x);
    device_array(d, "take_rows", out);
    device_open(d);
    eqnn__cpu.take_rows(d, n, cols, index, x, out);
    device_close(d);
}

static void device_copy2d(eqnn__device *d, size_t rows, size_t cols, const eqnn_real *src,
                          size_t lds, eqnn_real *dst, size_t ldd, int add)
{
    device_array(d, "copy2d", src);
    device_array(d, "copy2d", dst);
    device_open(d);
    eqnn__cpu.copy2d(d, rows, cols, src, lds, dst, ldd, add);
    device_close(d);
}

static void device_transpose(eqnn__device *d, size_t rows, size_t cols, const eqnn_real *x,
                             eqnn_real *out)
{
    device_array(d, "transpose", x);
    device_array(d, "transpose", out);
    device_open(d);
    eqnn__cpu.transpose(d, rows, cols, x, out);
    device_close(d);
}

static void device_take_cols(eqnn__device *d, size_t rows, size_t n, const int *map,
                             const eqnn_real *x, size_t ldx, eqnn_real *out)
{
    device_array(d, "take_cols", map);
    device_array(d, "take_cols", x);
    device_array(d, "take_cols", out);
    device_open(d);
    eqnn__cpu.take_cols(d, rows, n, map, x, ldx, out);
    device_close(d);
}

static void device_add_cols(eqnn__device *d, size_t rows, size_t n, const int *first,
                            const int *list, const eqnn_real *x, size_t ldx, eqnn_real *out)
{
    device_array(d, "add_cols", first);
    device_array(d, "add_cols", list);
    device_array(d, "add_cols", x);
    device_array(d, "add_cols", out);
    device_open(d);
    eqnn__cpu.add_cols(d, rows, n, first, list, x, ldx, out);
    device_close(d);
}

static void device_gemm(eqnn__device *d, int ta, int tb, size_t m, size_t n, size_t k, double alpha,
                        const eqnn_real *A, size_t lda, size_t sa, const eqnn_real *B, size_t ldb,
                        size_t sb, double beta, eqnn_real *C, size_t ldc, size_t sc, size_t batch)
{
    device_array(d, "gemm", A);
    device_array(d, "gemm", B);
    device_array(d, "gemm", C);
    device_array(d, "gemm", d->scratch);
    device_open(d);
    eqnn__cpu.gemm(d, ta, tb, m, n, k, alpha, A, lda, sa, B, ldb, sb, beta, C, ldc, sc, batch);
    device_close(d);
}

static void device_form(eqnn__device *d, const eqnn__form *f, const eqnn_real *const v[],
                        const eqnn_real *const t[], eqnn_real *const out[])
{
    const eqnn_graph *g = f->graph;
    for (int s = 0; s < f->slots; s++) {
        device_array(d, "form", v[s]);
        device_array(d, "form", t ? t[s] : NULL);
        device_array(d, "form", out[s]);
    }
    if (g) {
        const int *array[9];
        array[0] = g->source, array[1] = g->target, array[2] = g->first, array[3] = g->by_source;
        array[4] = g->first_by_source, array[5] = g->example, array[6] = g->pair;
        array[7] = g->pair_edge, array[8] = g->block;
        for (int i = 0; i < 9; i++) device_array(d, "form's graph", array[i]);
    }
    device_array(d, "form", d->scratch);
    device_open(d);
    eqnn__cpu.form(d, f, v, t, out);
    device_close(d);
}

static void device_solid(eqnn__device *d, int lmax, size_t n, const eqnn_real *xyz, eqnn_real *Y,
                         eqnn_real *jacobian)
{
    device_array(d, "solid", xyz);
    device_array(d, "solid", Y);
    device_array(d, "solid", jacobian);
    device_open(d);
    eqnn__cpu.solid(d, lmax, n, xyz, Y, jacobian);
    device_close(d);
}

static void device_solid_vjp(eqnn__device *d, int lmax, size_t n, const eqnn_real *xyz,
                             const eqnn_real *g, eqnn_real *dxyz)
{
    device_array(d, "solid_vjp", xyz);
    device_array(d, "solid_vjp", g);
    device_array(d, "solid_vjp", dxyz);
    device_open(d);
    eqnn__cpu.solid_vjp(d, lmax, n, xyz, g, dxyz);
    device_close(d);
}

static void device_frame(eqnn__device *d, const eqnn__frame_plan *plan, int mmax, size_t n,
                         const eqnn_real *r, const double *given, eqnn_real *D)
{
    device_array(d, "frame", r);
    device_array(d, "frame", given);
    device_array(d, "frame", D);
    device_array(d, "frame", d->scratch);
    device_open(d);
    eqnn__cpu.frame(d, plan, mmax, n, r, given, D);
    device_close(d);
}

static void device_update(eqnn__device *d, const eqnn__update *u, size_t n, eqnn_real *w,
                          eqnn_real *g, eqnn_real *s1, eqnn_real *s2, eqnn_real *s3)
{
    if (device_of(d)->flag) return;
    device_array(d, "update", u->squares);
    device_array(d, "update", w);
    device_array(d, "update", g);
    device_array(d, "update", s1);
    device_array(d, "update", s2);
    device_array(d, "update", s3);
    device_open(d);
    eqnn__cpu.update(d, u, n, w, g, s1, s2, s3);
    device_close(d);
}

static const eqnn__kernels device_table = {
    device_begin,     device_end,           device_reserve,   device_release,
    device_copy,      device_fill,          device_wait,      device_send,
    device_map,       device_random,        device_check,     device_fold_rows,
    device_fold_cols, device_fold_segments, device_dot_rows,  device_total,
    device_softmax,   device_largest,       device_standard,  device_take_rows,
    device_copy2d,    device_transpose,     device_take_cols, device_add_cols,
    device_gemm,      device_form,          device_solid,     device_solid_vjp,
    device_frame,     NULL,                 device_update,    0};

/* --- what happens when the host touches that memory --- */

static void device_touched(int signal_number)
{
    static const char text[] = "the host touched memory of the device\n";
    ssize_t written = write(2, text, sizeof text - 1);
    _exit(written > 0 ? 128 + signal_number : 1);
}

static void device_guard(void)
{
    signal(SIGSEGV, device_touched);
    signal(SIGBUS, device_touched);
}
#endif
#endif
