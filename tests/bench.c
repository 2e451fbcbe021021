/* bench.c - how fast the kernels and the models are here, beside what the machine can do

      make bench                              all cases, one thread, tab-separated
      BENCH_FILTER=sh_l6 make bench           only problems whose name contains this
      THREADS=2 make bench
      BENCH_SAMPLES=25 BENCH_SAMPLE_MS=4      samples per row, least length of one
      BENCH_CLOCK=cpu                         processor time: for one thread on a busy machine
      EQNN_DEVICE=cuda make bench CUDA=1      on a GPU; its copies are timed in the place of limits
      BENCH_ROWS=1000000 BENCH_POINTS=10000000    edges or rows of a product (20 times a whole
                                              number); points of harmonics

   A row is a problem, a pass (fwd; jac: values and their Jacobian; fwd_bwd: also the gradients of
   all inputs and weights; train: forward, loss, backward, Adam), and the time of one call on the
   whole batch in nanoseconds. flops and bytes are those of the cheapest way to do the work, each
   operand moved once, so that flops / time and bytes / time can be laid beside the limits. */
#define _POSIX_C_SOURCE 199309L
#define EQNN_STATIC
#define EQNN_IMPLEMENTATION
#include "../eqnn.h"
#include "../eqnn_groups.h"
#include <time.h>

#define REAL (sizeof(eqnn_real) == 8 ? "f64" : "f32")

/* ---- measuring ---- */

typedef struct row {
    const char *problem, *pass, *dtype, *impl;
    long batch;
    double flops, bytes; /* of one call */
    const char *note;
    int threads;         /* default those of the context */
} row;

static int threads = 1, samples; /* samples: when not 0, in the place of BENCH_SAMPLES */
static int row_count = 2000, node_count = 100; /* of products; edges come 20 to a node */
static eqnn_ctx *timed; /* whose device must be done before the clock is read */

static double setting(const char *name, double otherwise)
{
    const char *s = getenv(name);
    return s && *s ? atof(s) : otherwise;
}

static double now(void)
{
    static int cpu = -1;
    struct timespec t;
    if (cpu < 0) cpu = getenv("BENCH_CLOCK") && !strcmp(getenv("BENCH_CLOCK"), "cpu");
    clock_gettime(cpu ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
    return 1e9 * (double)t.tv_sec + (double)t.tv_nsec;
}

static void await(void)
{
    char why[400];
    if (timed && !timed->k->wait(&timed->device, why, sizeof why)) printf("# %s\n", why);
}

static double time_of(void (*call)(void *), void *user, long times)
{
    await();
    double start = now();
    for (long i = 0; i < times; i++) call(user);
    await();
    return now() - start;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double quantile(const double *sorted, int n, double q)
{
    double at = q * (n - 1);
    int i = (int)at;
    return i + 1 < n ? sorted[i] + (at - i) * (sorted[i + 1] - sorted[i]) : sorted[n - 1];
}

static int wanted(const char *problem)
{
    const char *f = getenv("BENCH_FILTER");
    return !f || strstr(problem, f) != NULL;
}

/* Calls until a sample is long enough, then takes samples of so many calls. The median. */
static double measure(row r, void (*call)(void *), void *user)
{
    static double t[1000];
    double least = 1e6 * setting("BENCH_SAMPLE_MS", 4), all;
    int n = samples ? samples : (int)setting("BENCH_SAMPLES", 25);
    long calls = 1;
    if (!wanted(r.problem)) return 0;
    n = n < 3 ? 3 : n > 1000 ? 1000 : n;
    call(user); /* parameters and plans come into being */
    call(user);
    while ((all = time_of(call, user, calls)) < least)
        calls = all < least / 8 ? calls * 4 : (long)((double)calls * 1.1 * least / all) + 1;
    for (int i = 0; i < n; i++) t[i] = time_of(call, user, calls) / (double)calls;
    qsort(t, (size_t)n, sizeof *t, ascending);
    printf("%s\t%s\t%s\t%d\t%ld\t%s\t", r.problem, r.pass, r.dtype,
           r.threads ? r.threads : threads, r.batch, r.impl);
    printf("%.1f\t%.1f\t%.1f\t%.1f\t%d\t%.6g\t%.6g\t%s\n", quantile(t, n, 0.5),
           quantile(t, n, 0.1), quantile(t, n, 0.9), t[0], n, r.flops, r.bytes, r.note);
    fflush(stdout);
    return quantile(t, n, 0.5);
}

static void report(eqnn_ctx *c, const char *problem)
{
    if (eqnn_error(c)) printf("# %s: %s\n", problem, eqnn_error(c));
    eqnn_clear(c);
}

static eqnn_ctx *context(void)
{
    eqnn_opts o = { .threads = threads, .seed = 1, .device = getenv("EQNN_DEVICE") };
    eqnn_ctx *c = eqnn_make(&o);
    if (!c || eqnn_error(c)) {
        fprintf(stderr, "bench: %s\n", c ? eqnn_error(c) : "no memory");
        exit(1);
    }
    return timed = c;
}

static void end_of(eqnn_ctx *c)
{
    eqnn_free(c);
    timed = NULL;
}

/* ---- what the machine can do ---- */

#if defined(__GNUC__)
#define MACHINE
#ifdef __clang__
#define FUSED
#else
#define FUSED , optimize("fp-contract=fast")
#endif
#if defined(__x86_64__)
#define TARGET(features) __attribute__((noinline, target(features) FUSED))
#else
#define TARGET(features) __attribute__((noinline))
#endif
#define HIDE(pointer) __asm__ volatile("" : : "r"(pointer) : "memory")

static volatile double sink;

/* Twelve independent chains of multiply-add; memory read, written, copied a vector at a time. */
#define LIMITS(bits, features)                                                                     \
    typedef float f32_##bits __attribute__((vector_size(bits / 8)));                               \
    typedef double f64_##bits __attribute__((vector_size(bits / 8)));                              \
    TARGET(features) static void fma_f32_##bits(void *user) FMA_BODY(f32_##bits)                   \
    TARGET(features) static void fma_f64_##bits(void *user) FMA_BODY(f64_##bits)                   \
    TARGET(features) static void read_##bits(void *user)                                           \
    {                                                                                              \
        memory_job *m = (memory_job *)user;                                                        \
        const f32_##bits *a = (const f32_##bits *)m->a;                                            \
        f32_##bits s[4] = {{0}, {0}, {0}, {0}};                                                    \
        for (long k = 0; k < m->times; k++) {                                                      \
            HIDE(a);                                                                               \
            for (size_t i = 0; i < m->bytes / sizeof *a; i += 4)                                   \
                s[0] += a[i], s[1] += a[i + 1], s[2] += a[i + 2], s[3] += a[i + 3];                \
        }                                                                                          \
        s[0] += s[1] + s[2] + s[3];                                                                \
        sink = (double)s[0][0];                                                                    \
    }                                                                                              \
    TARGET(features) static void write_##bits(void *user)                                          \
    {                                                                                              \
        memory_job *m = (memory_job *)user;                                                        \
        f32_##bits *a = (f32_##bits *)m->a, one = {1};                                             \
        for (long k = 0; k < m->times; k++)                                                        \
            for (size_t i = 0; i < m->bytes / sizeof *a; i++) {                                    \
                a[i] = one;                                                                        \
                HIDE(a);                                                                           \
            }                                                                                      \
    }                                                                                              \
    TARGET(features) static void copy_##bits(void *user)                                           \
    {                                                                                              \
        memory_job *m = (memory_job *)user;                                                        \
        f32_##bits *a = (f32_##bits *)m->a, *b = (f32_##bits *)m->b;                               \
        for (long k = 0; k < m->times; k++)                                                        \
            for (size_t i = 0; i < m->bytes / sizeof *a; i++) {                                    \
                b[i] = a[i];                                                                       \
                HIDE(b);                                                                           \
            }                                                                                      \
    }
#define FMA_ROUNDS 20000
#define FMA_BODY(type)                                                                             \
    {                                                                                              \
        type x = {0}, y = {0}, a[12];                                                              \
        for (int i = 0; i < 12; i++) a[i] = y + (float)(i + 1);                                    \
        (void)user;                                                                                \
        x += (float)0.9999;                                                                        \
        y += (float)1e-4;                                                                          \
        __asm__ volatile("" : "+m"(x), "+m"(y));                                                   \
        for (int k = 0; k < FMA_ROUNDS; k++) {                                                     \
            a[0] = a[0] * x + y, a[1] = a[1] * x + y, a[2] = a[2] * x + y, a[3] = a[3] * x + y;    \
            a[4] = a[4] * x + y, a[5] = a[5] * x + y, a[6] = a[6] * x + y, a[7] = a[7] * x + y;    \
            a[8] = a[8] * x + y, a[9] = a[9] * x + y, a[10] = a[10] * x + y;                       \
            a[11] = a[11] * x + y;                                                                 \
        }                                                                                          \
        for (int i = 1; i < 12; i++) a[0] += a[i];                                                 \
        sink = (double)a[0][0];                                                                    \
    }

typedef struct memory_job { char *a, *b; size_t bytes; long times; } memory_job;
#if defined(__x86_64__)
LIMITS(512, "avx512f,fma")
LIMITS(256, "avx2,fma")
#else
LIMITS(128, "")
#endif

/* The kernels of one width. */
typedef struct limit_set {
    int bits;
    void (*fma32)(void *), (*fma64)(void *), (*memory[3])(void *);
} limit_set;

static void limits_of(const limit_set *s, int with_memory)
{
    static const char *const what[3] = { "read", "write", "copy" };
    static const char *const where[4] = { "16K", "256K", "8M", "256M" };
    static const long times[4] = { 4000, 200, 4, 1 };
    static const size_t kilobytes[4] = { 16, 256, 8192, 262144 };
    char name[64];
    snprintf(name, sizeof name, "fma_peak_%d", s->bits);
    double flops = 2.0 * 12 * FMA_ROUNDS * s->bits / 32;
    row f = { name, "fwd", "f32", "machine", 1, flops, 0, "12 chains", 1 };
    measure(f, s->fma32, NULL);
    f.dtype = "f64";
    f.flops /= 2;
    measure(f, s->fma64, NULL);
    for (int level = 0; with_memory && level < 4; level++) {
        memory_job m = { NULL, NULL, kilobytes[level] * 1024, times[level] };
        for (int k = 0; k < 3; k++) {
            snprintf(name, sizeof name, "bw_%s_%s", what[k], where[level]);
            if (!wanted(name)) continue;
            size_t half = level < 2 ? 2 : 1; /* a copy has two arrays in the cache */
            memory_job job = m;
            char *p = (char *)malloc(2 * m.bytes + 128);
            if (!p) return;
            memset(p, 1, 2 * m.bytes + 128); /* not 0: that would be one page, mapped many times */
            job.a = p + (64 - (uintptr_t)p % 64);
            job.b = job.a + m.bytes;
            if (k == 2) job.bytes /= half;
            double moved = (double)job.bytes * (double)job.times * (k == 2 ? 2 : 1);
            row b = { name, "fwd", "f32", "machine", 1, 0, moved, "bytes moved", 1 };
            measure(b, s->memory[k], &job);
            free(p);
        }
    }
}

static void limits(void)
{
#if defined(__x86_64__)
    limit_set wide = { 512, fma_f32_512, fma_f64_512, { read_512, write_512, copy_512 } };
    limit_set narrow = { 256, fma_f32_256, fma_f64_256, { read_256, write_256, copy_256 } };
    __builtin_cpu_init();
    int has_wide = __builtin_cpu_supports("avx512f");
    if (has_wide) limits_of(&wide, 1);
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        limits_of(&narrow, !has_wide);
#else
    limit_set only = { 128, fma_f32_128, fma_f64_128, { read_128, write_128, copy_128 } };
    limits_of(&only, 1);
#endif
}
#endif

/* What a GPU copies within its memory, in the place of the processor's limits. */
typedef struct copy_job { eqnn_ctx *c; void *to, *from; size_t bytes; } copy_job;

static void copy_within(void *user)
{
    copy_job *j = (copy_job *)user;
    j->c->k->copy(&j->c->device, j->to, j->from, j->bytes, EQNN__WITHIN);
}

static void device_limits(void)
{
    eqnn_ctx *c = context();
    eqnn_tensor *from = eqnn_keep(eqnn_zeros(c, 16384, 16384));
    eqnn_tensor *to = eqnn_keep(eqnn_zeros(c, 16384, 16384));
    copy_job j = { c, NULL, NULL, (size_t)16384 * 16384 * sizeof(eqnn_real) };
    if (from && to) j.from = from->data, j.to = to->data;
    double moved = 2. * (double)j.bytes;
    row r = { "memory_copy", "fwd", "f32", "machine", 1, 0, moved, "bytes moved", 1 };
    if (j.to) measure(r, copy_within, &j);
    report(c, "memory_copy");
    end_of(c);
}

/* ---- harmonics ---- */

typedef struct harmonics_job {
    eqnn_ctx *c;
    int lmax, n;
    eqnn_real *Y, *J;
    eqnn_tensor *x, *g;
} harmonics_job;

static void harmonics_kernel(void *user)
{
    harmonics_job *j = (harmonics_job *)user;
    j->c->k->solid(&j->c->device, j->lmax, (size_t)j->n, j->x->data, j->Y, j->J);
}

static void harmonics_vjp(void *user)
{
    harmonics_job *j = (harmonics_job *)user;
    eqnn_harmonics_opts o = { .normalize = 1 };
    eqnn_vjp(eqnn_spherical_harmonics(j->x, j->lmax, &o), j->g, j->x);
    eqnn_reset(j->c);
}

static eqnn_tensor *points(eqnn_ctx *c, int n)
{
    eqnn_tensor *x = eqnn_normal(c, "points", n, 3);
    return eqnn_keep(eqnn_div(x, eqnn_norm(x)));
}

static void harmonics(void)
{
    int most = (int)setting("BENCH_POINTS", 100000);
    for (int large = 0; large < 2; large++)
        for (int l = 1; l <= 10; l++) {
            char name[16];
            int batch = large || most < 100 ? most : most / 100;
            snprintf(name, sizeof name, "sh_l%d", l);
            if (!wanted(name)) continue;
            eqnn_ctx *c = context();
            size_t cols = (size_t)(l + 1) * (size_t)(l + 1), n = (size_t)batch;
            harmonics_job j = { c, l, batch, NULL, NULL, points(c, batch), NULL };
            eqnn_tensor *Y = eqnn_keep(eqnn_zeros(c, batch, (int)cols));
            eqnn_tensor *J = eqnn_keep(eqnn_zeros(c, 3 * batch, (int)cols));
            j.g = eqnn_keep(eqnn_normal(c, "g", batch, (int)cols));
            eqnn_reset(c);
            if (!Y || !J || !j.g) {
                report(c, name);
                end_of(c);
                continue;
            }
            j.Y = Y->data;
            double word = sizeof(eqnn_real), values = word * (double)n * (3 + (double)cols);
            row r = { name, "fwd", REAL, "eqnn-rows", batch, 0, values, "of unit vectors", 0 };
            measure(r, harmonics_kernel, &j);
            j.J = J->data;
            r.pass = "jac";
            r.bytes = word * (double)n * (3 + 4 * (double)cols);
            measure(r, harmonics_kernel, &j);
            r.pass = "fwd_bwd";
            r.impl = "eqnn";
            r.bytes = word * (double)n * (6 + (double)cols);
            r.note = "of x/|x|, vector-Jacobian product on the tape";
            measure(r, harmonics_vjp, &j);
            report(c, name);
            end_of(c);
        }
}

/* ---- tensor products ---- */

#define HIDDEN 64

/* flops of one edge as the cheapest scheme needs, forward and with backward */
typedef struct product_case {
    const char *name, *in1, *in2, *out;
    int full;
    double flops, both;
} product_case;
#define BLOG "8x0e+8x0o+16x1e+16x1o+8x2e+8x2o"
#define SPHERE2 "1x0e+1x1o+1x2e"
#define SPHERE3 "1x0e+1x1o+1x2e+1x3o"
#define NEQUIP(n) n "x0e+" n "x0o+" n "x1e+" n "x1o+" n "x2e+" n "x2o"
static const product_case products[] = {
    { "tp_blog1", SPHERE3, SPHERE3, BLOG, 1, 2861, 8583 },
    { "tp_blog2", BLOG, SPHERE3, "1x1o", 1, 757, 2271 },
    { "tp_nequip32_l2", NEQUIP("32"), SPHERE2, NEQUIP("32"), 0, 20324, 70764 },
    { "tp_nequip64_l2", NEQUIP("64"), SPHERE2, NEQUIP("64"), 0, 40100, 139884 },
    { "tp_nequip64_l3", NEQUIP("64") "+64x3e+64x3o", SPHERE3, NEQUIP("64") "+64x3e+64x3o", 0,
      160908, 542628 },
    { "tp_mace_medium", "128x0e+128x1o", SPHERE3, "128x0e+128x1o+128x2e", 0, 16244, 54620 },
    { "tp_mace_large", "128x0e+128x1o+128x2e", SPHERE3, "128x0e+128x1o+128x2e+128x3o", 0,
      57390, 192266 },
    { "tp_blog_hidden", BLOG, SPHERE3, BLOG, 0, 9932, 33812 },
};

typedef struct product_job {
    eqnn_ctx *c;
    const eqnn_product *p;
    const eqnn_graph *graph;               /* NULL: row by row                     */
    eqnn_tensor *in[4], *g;                /* x, y, w or h, V; cotangent           */
    int inputs;
} product_job;

static eqnn_tensor *product_of(product_job *j)
{
    if (!j->graph) return eqnn_tensor_product(j->in[0], j->in[1], j->in[2], j->p);
    return eqnn_message(j->in[0], j->in[1], j->in[2], j->in[3], j->p, j->graph);
}

static void product_forward(void *user)
{
    product_job *j = (product_job *)user;
    eqnn_recording(j->c, 0);
    product_of(j);
    eqnn_recording(j->c, 1);
    eqnn_reset(j->c);
}

static void product_both(void *user)
{
    product_job *j = (product_job *)user;
    eqnn_tensor *d[4];
    eqnn_vjps(product_of(j), j->g, j->in, j->inputs, d);
    eqnn_reset(j->c);
}

static eqnn_tensor *kept(eqnn_ctx *c, const char *name, int rows, const eqnn_irreps *a, int cols)
{
    eqnn_tensor *x = eqnn_normal(c, name, rows, a ? a->cols : cols);
    return eqnn_keep(a ? eqnn_as(x, a) : x);
}

/* Every node hears from 20 others. */
static const eqnn_graph *random_graph(eqnn_ctx *c)
{
    int *source = (int *)malloc((size_t)row_count * sizeof(int));
    int *target = (int *)malloc((size_t)row_count * sizeof(int)), each = row_count / node_count;
    if (!source || !target) exit(1);
    uint32_t s = 1;
    for (int e = 0; e < row_count; e++) {
        s = s * 1664525u + 1013904223u;
        target[e] = e / each;
        source[e] = (target[e] + 1 + 5 * (e % each) - (int)(s >> 30)) % node_count;
        if (source[e] < 0) source[e] += node_count;
    }
    eqnn_graph_opts o = { .sources = node_count, .targets = node_count, .keep = 1 };
    const eqnn_graph *g = eqnn_graph_make(c, row_count, source, target, &o);
    free(source), free(target);
    return g;
}

static void product_rows(product_job *j, const product_case *t, const char *impl, double bytes,
                         const char *note)
{
    row r = { t->name, "fwd", REAL, impl, row_count, t->flops * row_count, bytes, note, 0 };
    int rows = j->graph ? node_count : row_count;
    j->g = kept(j->c, "g", rows, eqnn_product_out(j->p), 0);
    eqnn_reset(j->c);
    measure(r, product_forward, j);
    r.pass = "fwd_bwd";
    r.flops = t->both * row_count;
    r.bytes *= 3;
    measure(r, product_both, j);
    report(j->c, t->name);
}

static void product_problem(const product_case *t)
{
    eqnn_ctx *c = context();
    const eqnn_irreps *in1 = eqnn_irreps_make(c, t->in1), *in2 = eqnn_irreps_make(c, t->in2);
    const eqnn_irreps *out = eqnn_irreps_make(c, t->out);
    product_job j = { c, NULL, NULL, { NULL, NULL, NULL, NULL }, NULL, 3 };
    j.p = t->full ? eqnn_product_full(c, in1, in2, out, NULL)
                  : eqnn_product_channelwise(c, in1, in2, out, NULL);
    if (!j.p) {
        report(c, t->name);
        end_of(c);
        return;
    }
    int weights = eqnn_product_weights(j.p), to = eqnn_product_out(j.p)->cols;
    double word = sizeof(eqnn_real), all = word * row_count * (double)(in1->cols + in2->cols + to);
    double stored = word * weights * (t->full ? 1.0 : row_count);
    double shared = word * (node_count * (double)(in1->cols + to) + row_count * (double)in2->cols);
    j.in[0] = kept(c, "x", row_count, in1, 0);
    j.in[1] = kept(c, "y", row_count, in2, 0);
    j.in[2] = kept(c, "w", t->full ? 1 : row_count, NULL, weights);
    product_rows(&j, t, "eqnn", all + stored, t->full ? "weights shared" : "weights per edge");
    j.in[0] = kept(c, "x", node_count, in1, 0);
    j.graph = random_graph(c);
    if (!t->full) {
        product_rows(&j, t, "eqnn-fused", shared + stored, "100 nodes, weights from memory");
        j.in[2] = kept(c, "h", row_count, NULL, HIDDEN);
        j.in[3] = kept(c, "V", HIDDEN, NULL, weights);
        j.inputs = 4;
        product_rows(&j, t, "eqnn-fused-radial", shared + word * row_count * HIDDEN,
                     "100 nodes, weights from 64 hidden numbers (not in flops)");
    }
    end_of(c);
}

/* ---- linear maps ---- */

typedef struct linear_job {
    eqnn_ctx *c;
    eqnn_tensor *in[2], *g;
    const eqnn_irreps *out;
} linear_job;

static void linear_forward(void *user)
{
    linear_job *j = (linear_job *)user;
    eqnn_recording(j->c, 0);
    eqnn_irreps_map(j->in[0], j->in[1], NULL, j->out, NULL);
    eqnn_recording(j->c, 1);
    eqnn_reset(j->c);
}

static void linear_both(void *user)
{
    linear_job *j = (linear_job *)user;
    eqnn_tensor *d[2];
    eqnn_vjps(eqnn_irreps_map(j->in[0], j->in[1], NULL, j->out, NULL), j->g, j->in, 2, d);
    eqnn_reset(j->c);
}

static void linears(void)
{
    static const struct { const char *name, *irreps; } cases[] = {
        { "lin_nequip32", NEQUIP("32") }, { "lin_mace128", "128x0e+128x1o" },
        { "lin_blog", BLOG }, { "lin_256_l2", "256x0e+256x1o+256x2e" },
    };
    for (int i = 0; i < 4; i++) {
        if (!wanted(cases[i].name)) continue;
        eqnn_ctx *c = context();
        const eqnn_irreps *a = eqnn_irreps_make(c, cases[i].irreps);
        linear_job j = { c, { NULL, NULL }, NULL, a };
        j.in[0] = kept(c, "x", row_count, a, 0);
        j.g = kept(c, "g", row_count, a, 0);
        j.in[1] = kept(c, "w", 1, NULL, eqnn_irreps_map_weights(a, a, NULL));
        eqnn_reset(c);
        double flops = 0;
        for (int b = 0; b < a->blocks; b++)
            flops += 2.0 * row_count * pow(a->block[b].copies, 2) * a->block[b].type->dim;
        double bytes = (double)sizeof(eqnn_real) * row_count * 2 * a->cols;
        row r = { cases[i].name, "fwd", REAL, "eqnn", row_count, flops, bytes, "", 0 };
        measure(r, linear_forward, &j);
        r.pass = "fwd_bwd";
        r.flops *= 3;
        r.bytes *= 3;
        measure(r, linear_both, &j);
        report(c, cases[i].name);
        end_of(c);
    }
}

/* ---- symmetric contractions, on nodes ---- */

typedef struct contraction_job {
    eqnn_ctx *c;
    eqnn_tensor *x, *g;
    eqnn_ints *species;
} contraction_job;

static eqnn_tensor *contraction_of(contraction_job *j)
{
    eqnn_contraction_opts o = { .species = j->species };
    return eqnn_symmetric_contraction(j->x, "contraction", "128x0e+128x1o", &o);
}

static void contraction_forward(void *user)
{
    contraction_job *j = (contraction_job *)user;
    eqnn_recording(j->c, 0);
    contraction_of(j);
    eqnn_recording(j->c, 1);
    eqnn_reset(j->c);
}

static void contraction_both(void *user)
{
    contraction_job *j = (contraction_job *)user;
    eqnn_tensor *d[8], *by[8] = { j->x }, *z = contraction_of(j);
    int n = eqnn_parameter_count(j->c);
    for (int i = 0; i < n && i < 7; i++) by[1 + i] = eqnn_parameter_at(j->c, i);
    eqnn_vjps(z, j->g, by, 1 + n, d);
    eqnn_reset(j->c);
}

/* Three factors. A term is a sum and products: by c, T and x, and where an order ends by w. */
static void contractions(void)
{
    const char *name = "contraction_mace_medium";
    if (!wanted(name)) return;
    eqnn_ctx *c = context();
    const eqnn_irreps *in = eqnn_irreps_make(c, "128x0e+128x1o+128x2e+128x3o");
    const eqnn_irreps *out = eqnn_irreps_make(c, "128x0e+128x1o");
    int *kind = calloc((size_t)node_count, sizeof *kind);
    for (int i = 0; kind && i < node_count; i++) kind[i] = i % 4;
    contraction_job j = { c, kept(c, "x", node_count, in, 0), kept(c, "g", node_count, out, 0),
                          eqnn_ints_make(c, node_count, kind, 4, 1) };
    eqnn_reset(c);
    const eqnn__contraction *k = eqnn__contraction_find(c, in, out, 3);
    double flops = 0, bytes = (double)sizeof(eqnn_real) * node_count * (in->cols + out->cols);
    for (int nu = 1; k && nu <= 3; nu++) {
        const eqnn__poly_plan_t *couple = k->order[nu].couple, *finish = k->order[nu].finish;
        flops += 128.0 * node_count * ((couple ? 3 * couple->records : 0) + 4 * finish->records);
    }
    row r = { name, "fwd", REAL, "eqnn", node_count, flops, bytes, "", 0 };
    measure(r, contraction_forward, &j);
    r.pass = "fwd_bwd";
    r.flops *= 3;
    r.bytes *= 2;
    measure(r, contraction_both, &j);
    report(c, name);
    free(kind);
    end_of(c);
}

/* ---- training steps: batches of 32 examples of 12 bodies ----
   net_energy is the large network with one scalar an example; net_force trains on its gradient too,
   which takes derivatives of derivatives. */

#define EXAMPLES 32
#define BODIES 12

enum { LARGE, SMALL, MLP, ENERGY, FORCE, NETS };

typedef struct net_job {
    eqnn_ctx *c;
    int kind, edges;
    eqnn_tensor *pos, *target, *energies;
    eqnn_adam *adam;
    int example[EXAMPLES * BODIES];
} net_job;

static eqnn_tensor *net(net_job *j)
{
    eqnn_network_opts large = { .hidden = BLOG, .out = "1x1o", .layers = 3, .lmax = 3,
                                             .radius = 3.5, .basis = 10, .radial_layers = 1,
                                             .radial_neurons = 128, .neighbours = 11, .nodes = 12 };
    static const eqnn_polynomial_opts small = { .mid = BLOG, .out = "1x1o", .lmax = 3,
                                                .neighbours = 11 };
    static const eqnn_mlp_opts linear = { .linear = 1 };
    if (j->kind == MLP) return eqnn_mlp(j->pos, "mlp", "64,64,36", &linear);
    eqnn_graph_opts o = { .example = j->example, .examples = EXAMPLES };
    const eqnn_graph *g = eqnn_radius_graph(j->pos, 3.5, &o);
    if (g) j->edges = g->edges;
    if (j->kind == SMALL) return eqnn_polynomial(j->pos, g, "net", &small);
    if (j->kind >= ENERGY) large.out = "1x0e", large.reduce = 1;
    return eqnn_network(NULL, NULL, j->pos, g, "net", &large);
}

static void net_forward(void *user)
{
    net_job *j = (net_job *)user;
    eqnn_recording(j->c, 0);
    net(j);
    eqnn_recording(j->c, 1);
    eqnn_reset(j->c);
}

static void net_train(void *user)
{
    net_job *j = (net_job *)user;
    eqnn_tensor *y = net(j), *loss = eqnn_mse(y, j->kind == FORCE ? j->energies : j->target);
    if (j->kind == FORCE)
        loss = eqnn_add(loss, eqnn_mse(eqnn_neg(eqnn_grad(eqnn_sum(y), j->pos)), j->target));
    eqnn_backward(loss);
    eqnn_adam_step(j->adam);
    eqnn_reset(j->c);
}

/* A planar chain: bonds of length 1/3 that turn by about 60 degrees to either side, as the bead
   chain of the study; all bodies of an example see each other. */
static void chain(eqnn_ctx *c, double *pos)
{
    double turn[BODIES * EXAMPLES];
    eqnn_random(c, "chain", 1, BODIES * EXAMPLES, turn);
    for (int i = 0; i < EXAMPLES; i++) {
        double x = 26, y = 6.5, angle = 0;
        for (int b = 0; b < BODIES; b++) {
            double *p = pos + 3 * (i * BODIES + b), t = turn[i * BODIES + b];
            angle += (t > 0 ? 1 : -1) * 1.047 + 0.1 * t;
            p[0] = x += cos(angle) / 3;
            p[1] = y += sin(angle) / 3;
            p[2] = 0;
        }
    }
}

static eqnn_tensor *small_numbers(eqnn_ctx *c, const char *name, int rows, int cols)
{
    eqnn_tensor *x = eqnn_scale(eqnn_normal(c, name, rows, cols), 0.01);
    return eqnn_keep(cols == 3 ? eqnn_as(x, eqnn_irreps_make(c, "1x1o")) : x);
}

static void net_make(net_job *j, int kind)
{
    static double pos[EXAMPLES * BODIES * 3];
    eqnn_adam_opts rate = { .rate = 1e-3 };
    int rows = kind == MLP ? EXAMPLES : EXAMPLES * BODIES, cols = kind == MLP ? 36 : 3;
    memset(j, 0, sizeof *j);
    j->c = context();
    j->kind = kind;
    for (int k = 0; k < EXAMPLES * BODIES; k++) j->example[k] = k / BODIES;
    chain(j->c, pos);
    eqnn_tensor *x = eqnn_from_double(j->c, rows, cols, pos);
    j->pos = eqnn_keep(kind == MLP ? x : eqnn_as(x, eqnn_irreps_make(j->c, "1x1o")));
    j->energies = small_numbers(j->c, "energies", EXAMPLES, 1);
    j->target = kind == ENERGY ? j->energies : small_numbers(j->c, "target", rows, cols);
    j->adam = eqnn_adam_make(j->c, &rate);
    eqnn_reset(j->c);
}

static void nets(void)
{
    static const struct { const char *name; double flops; } cases[NETS] = {
        { "net_blog_large", 854e6 }, { "net_blog_small", 15.3e6 }, { "net_mlp", 0.56e6 },
        { "net_energy", 0 },         { "net_force", 0 },
    };
    for (int i = 0; i < NETS; i++) {
        if (!wanted(cases[i].name)) continue;
        net_job j;
        net_make(&j, i);
        net_train(&j);
        char note[80];
        snprintf(note, sizeof note, "%d edges, %d parameters", j.edges,
                 (int)eqnn_parameter_size(j.c));
        row r = { cases[i].name, "fwd", REAL, "eqnn", EXAMPLES, cases[i].flops, 0, note, 0 };
        if (i != FORCE) measure(r, net_forward, &j); /* the forward pass of net_energy */
        r.pass = "train";
        r.flops *= 3;
        measure(r, net_train, &j);
        report(j.c, cases[i].name);
        end_of(j.c);
    }
}

/* ---- matrix products, functions of one number, the cost of an operation ---- */

typedef struct plain_job {
    eqnn_ctx *c;
    eqnn_tensor *a, *b;
    eqnn_tensor *(*f)(eqnn_tensor *);
    int times;
} plain_job;

static void multiply(void *user)
{
    plain_job *j = (plain_job *)user;
    eqnn_recording(j->c, 0);
    eqnn_matmul(j->a, j->b);
    eqnn_recording(j->c, 1);
    eqnn_reset(j->c);
}

static void apply(void *user)
{
    plain_job *j = (plain_job *)user;
    eqnn_recording(j->c, 0);
    j->f(j->a);
    eqnn_recording(j->c, 1);
    eqnn_reset(j->c);
}

static void many_tiny(void *user)
{
    plain_job *j = (plain_job *)user;
    eqnn_tensor *x = j->a;
    for (int i = 0; i < j->times; i++) x = eqnn_add(x, j->b);
    eqnn_reset(j->c);
}

static void many_tiny_both(void *user)
{
    plain_job *j = (plain_job *)user;
    eqnn_tensor *x = j->a;
    for (int i = 0; i < j->times; i++) x = eqnn_add(x, j->b);
    eqnn_vjp(x, j->b, j->a);
    eqnn_reset(j->c);
}

static void matrix_products(void)
{
    static const int sizes[9] = { 64, 96, 128, 192, 256, 384, 512, 768, 1024 };
    for (int i = 0; i < 9; i++) {
        int n = sizes[i];
        char name[16];
        snprintf(name, sizeof name, "%sgemm_%d", sizeof(eqnn_real) == 8 ? "d" : "s", n);
        if (!wanted(name)) continue;
        eqnn_ctx *c = context();
        plain_job j = { c, kept(c, "a", n, NULL, n), kept(c, "b", n, NULL, n), NULL, 0 };
        double m = n;
        double bytes = 3.0 * sizeof(eqnn_real) * m * m;
        row r = { name, "fwd", REAL, "eqnn", 1, 2 * m * m * m, bytes, "", 0 };
        eqnn_reset(c);
        measure(r, multiply, &j);
        report(c, name);
        end_of(c);
    }
}

/* ---- edge frames ----
   The tensor product of features with the harmonics of their edge, all paths with all their weights
   (64 channels, degrees 0 to l): as a product, which costs l^5 and more, and in the edge's frame,
   l^3. A line that begins with # sums up: time and memory of an edge, and what part of the rate of
   a matrix product (1024 x 1024, here and now) the way through the frame reaches. */

enum { FRAME_EDGES = 10000, FRAME_CHANNELS = 64 };

typedef struct frame_job {
    eqnn_ctx *c;
    const eqnn_irreps *a;
    const eqnn_product *p; /* NULL: through the frame */
    int lmax, edges, wants;
    eqnn_tensor *want[16], *g; /* x, then r or Y, then weights */
    eqnn_frame *f;
} frame_job;

static eqnn_tensor *frame_layer(frame_job *j)
{
    if (j->p) return eqnn_tensor_product(j->want[0], j->want[1], j->want[2], j->p);
    eqnn_tensor *y = eqnn_to_frame(j->want[0], j->f, EQNN_EDGES);
    return eqnn_from_frame(eqnn_so2_linear(y, "so2", j->a, NULL), j->f, j->a, EQNN_EDGES, 0);
}

static void frame_forward(void *user)
{
    frame_job *j = (frame_job *)user;
    eqnn_mark m = eqnn_mark_make(j->c);
    eqnn_recording(j->c, 0);
    eqnn_tensor *y = frame_layer(j);
    eqnn_recording(j->c, 1);
    eqnn_rewind(m, eqnn_slice_rows(y, 0, 1));
}

static void frame_both(void *user)
{
    frame_job *j = (frame_job *)user;
    eqnn_mark m = eqnn_mark_make(j->c);
    eqnn_tensor *d[16] = { NULL };
    eqnn_vjps(frame_layer(j), j->g, j->want, j->wants, d);
    eqnn_rewind(m, eqnn_slice_rows(d[0], 0, 1));
}

static void frame_frame(void *user)
{
    frame_job *j = (frame_job *)user;
    eqnn_mark m = eqnn_mark_make(j->c);
    eqnn_frame_make(j->want[1], j->lmax, j->lmax, NULL);
    eqnn_rewind(m, eqnn_slice_rows(j->want[1], 0, 1));
}

/* Every irrep even, so that the product has all paths of the frame. */
static const eqnn_irreps *frame_irreps(eqnn_ctx *c, int copies, int lmax)
{
    int block[32][3];
    for (int l = 0; l <= lmax; l++) block[l][0] = copies, block[l][1] = l, block[l][2] = 1;
    return eqnn_irreps_blocks(c, (const int (*)[3])block, lmax + 1);
}

static void frame_make(frame_job *j, int lmax, int edges, int dense)
{
    eqnn_harmonics_opts h = { .normalize = 1 };
    memset(j, 0, sizeof *j);
    j->c = context();
    j->lmax = lmax;
    j->edges = edges;
    j->wants = 3;
    j->a = frame_irreps(j->c, FRAME_CHANNELS, lmax);
    j->want[0] = kept(j->c, "x", edges, j->a, 0);
    j->g = kept(j->c, "g", edges, j->a, 0);
    j->want[1] = kept(j->c, "r", edges, NULL, 3);
    if (dense) {
        const eqnn_irreps *sphere = frame_irreps(j->c, 1, 2 * lmax);
        eqnn_tensor *Y = eqnn_spherical_harmonics(j->want[1], 2 * lmax, &h);
        j->p = eqnn_product_full(j->c, j->a, sphere, j->a, NULL);
        j->want[1] = eqnn_keep(eqnn_as(Y, sphere));
        j->want[2] = kept(j->c, "w", 1, NULL, eqnn_product_weights(j->p));
        eqnn_reset(j->c);
        return;
    }
    eqnn_reset(j->c);
    j->f = eqnn_frame_make(j->want[1], lmax, lmax, NULL);
    frame_forward(j);
    for (j->wants = 2; j->wants - 2 < eqnn_parameter_count(j->c); j->wants++)
        j->want[j->wants] = eqnn_parameter_at(j->c, j->wants - 2);
}

/* Multiply-adds of an edge, times 2: rotations and mixing in the frame; coupling and mixing of all
   paths of the product. */
static double frame_flops(int L, int dense)
{
    double C = FRAME_CHANNELS, turn = 0, mix = 0;
    for (int l = 0; l <= L && !dense; l++) {
        turn += 2 * (2.0 * l + 1) * (2 * l + 1);
        mix += (l ? 4.0 : 1.0) * (L + 1 - l) * (L + 1 - l);
    }
    for (int a = 0; a <= L && dense; a++)
        for (int b = 0; b <= L; b++) {
            double paths = 2 * (a < b ? a : b) + 1;
            turn += paths * (2 * a + 1) * (2 * b + 1);
            mix += paths * (2 * b + 1);
        }
    return 2 * (turn * C + mix * C * C);
}

/* Nanoseconds of an edge forward, and bytes of an edge: forward, with backward. */
static double frame_rows(int lmax, int edges, int dense, double bytes[2])
{
    static const char *const pass[2] = { "fwd", "fwd_bwd" };
    frame_job j;
    char name[32];
    double t = 0, numbers = 2 * FRAME_CHANNELS * (lmax + 1.0) * (lmax + 1);
    snprintf(name, sizeof name, "frame_l%d", lmax);
    frame_make(&j, lmax, edges, dense);
    row r = { name, "frame", REAL, "eqnn", edges, 0, 0, "rotations of all degrees", 0 };
    if (!dense) measure(r, frame_frame, &j);
    r.impl = dense ? "dense" : "so2";
    r.note = dense ? "all paths, weights shared" : "into the frame, mixing, back";
    for (int both = 0; both < 2; both++) {
        size_t before = eqnn_memory_use(j.c).step;
        r.pass = pass[both];
        r.flops = (both ? 3 : 1) * frame_flops(lmax, dense) * edges;
        r.bytes = (both ? 3 : 1) * (double)sizeof(eqnn_real) * numbers * edges;
        double ns = measure(r, both ? frame_both : frame_forward, &j);
        bytes[both] = (double)(eqnn_memory_use(j.c).step_peak - before) / edges;
        if (!both) t = ns / edges;
    }
    report(j.c, name);
    end_of(j.c);
    return t;
}

static void frames(void)
{
    char name[32];
    samples = 5;
    for (int l = 1; l <= 8; l++) {
        double so2[2], dense[2], few = FRAME_EDGES / (1.0 + l * l * l * (double)l / 8);
        snprintf(name, sizeof name, "frame_l%d", l);
        if (!wanted(name)) continue;
        eqnn_ctx *c = context();
        eqnn_tensor *A = kept(c, "a", 1024, NULL, 1024), *B = kept(c, "b", 1024, NULL, 1024);
        plain_job j = { c, A, B, NULL, 0 };
        eqnn_reset(c);
        row r = { name, "gemm", REAL, "eqnn", 1, 2147483648.0, 0, "1024 x 1024 x 1024", 0 };
        double gemm = r.flops / measure(r, multiply, &j);
        end_of(c);
        double t = frame_rows(l, FRAME_EDGES, 0, so2), rate = frame_flops(l, 0) / t;
        double t2 = frame_rows(l, (int)few, 1, dense);
        printf("# l %d: an edge takes %.0f ns as a product (measured with %d edges), %.0f in the "
               "frame; %.0f and %.0f bytes forward, %.0f and %.0f with backward; %.0f GF/s, "
               "%.0f %% of a matrix product\n",
               l, t2, (int)few, t, dense[0], so2[0], dense[1], so2[1], rate, 100 * rate / gemm);
    }
    samples = 0;
}

static void small_things(void)
{
    static const struct { const char *name; eqnn_tensor *(*f)(eqnn_tensor *); } f[3] = {
        { "silu", eqnn_silu }, { "tanh", eqnn_tanh }, { "exp", eqnn_exp },
    };
    for (int i = 0; i < 3; i++) {
        if (!wanted(f[i].name)) continue;
        eqnn_ctx *c = context();
        plain_job j = { c, kept(c, "a", 128, NULL, 128), NULL, f[i].f, 0 };
        double bytes = 2.0 * 128 * 128 * sizeof(eqnn_real);
        row r = { f[i].name, "fwd", REAL, "eqnn", 128 * 128, 0, bytes, "elements", 0 };
        eqnn_reset(c);
        measure(r, apply, &j);
        report(c, f[i].name);
        end_of(c);
    }
    if (!wanted("tiny_op")) return;
    eqnn_ctx *c = context();
    plain_job j = { c, kept(c, "a", 1, NULL, 1), kept(c, "b", 1, NULL, 1), NULL, 1000 };
    row r = { "tiny_op", "fwd", REAL, "eqnn", 1000, 1000, 0, "additions of [1,1], recorded", 0 };
    eqnn_reset(c);
    measure(r, many_tiny, &j);
    r.pass = "fwd_bwd";
    measure(r, many_tiny_both, &j);
    report(c, "tiny_op");
    end_of(c);
}

/* ---- bases of matrix groups ---- */

/* A solve and what it leaves in the context, which is forgotten before the next. */
typedef struct basis_job { eqnn_ctx *c; eqnn__monomial *m; size_t at, used; } basis_job;

static void basis_solve(void *user)
{
    basis_job *j = (basis_job *)user;
    j->m->solution = NULL;
    j->c->groups->record = NULL;
    eqnn__arena_cut(&j->c->lasting, j->at, j->used);
    const eqnn__solution *s = eqnn__solve(j->m);
    sink = s ? (double)s->rank : 0;
}

static void bases(void)
{
    static const struct { const char *name, *group, *rep; } all[] = {
        { "basis_so3_t4", "SO(3)", "T(4)" },      { "basis_so3_t5", "SO(3)", "T(5)" },
        { "basis_so3_t6", "SO(3)", "T(6)" },      { "basis_so3_t7", "SO(3)", "T(7)" },
        { "basis_o13_t6", "O13", "T(6)" },        { "basis_so6_t6", "SO(6)", "T(6)" },
        { "basis_so13p_t44", "SO13p", "T(4,4)" }, { "basis_o13_t44", "O13", "T(4,4)" },
        { "basis_s10_t6", "S(10)", "T(6)" },      { "basis_rubik_t4", "RubiksCube", "T(4)" } };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (!wanted(all[i].name)) continue;
        eqnn_ctx *c = context();
        const eqnn_rep *r = eqnn_rep_make(c, all[i].rep, eqnn_group_make(c, all[i].group));
        basis_job j;
        if (!r) { report(c, all[i].name); end_of(c); continue; }
        j.c = c;
        j.m = (eqnn__monomial *)(uintptr_t)r->term[0].type;
        j.at = c->lasting.at;
        j.used = c->lasting.used;
        basis_solve(&j);
        row w = { all[i].name, "fwd", "f64", "eqnn", r->size, 0, 0, "components", 0 };
        measure(w, basis_solve, &j);
        report(c, all[i].name);
        end_of(c);
    }
}

/* ---- LieConv and LieTransformer ----
   Layers of the sizes that springs and molecules have, and a training step of the springs'
   networks, 4 steps of the 3/8 rule: HLieResNet of width 384, 4 layers, 200 systems of 6 particles;
   LieTransformer of width 160, 5 layers, 8 heads, 100 systems. */

typedef struct lie_job {
    eqnn_ctx *c;
    eqnn_tensor *x, *points;
    const eqnn_lie *g;
    eqnn_particles particles;
    eqnn_adam *adam;
    int channels, attention, again;
} lie_job;

static eqnn_tensor *lie_layer(lie_job *j)
{
    const eqnn_graph *graph = j->particles.graph;
    eqnn_lie_cloud cloud;
    if (j->attention) {
        eqnn_lie_attention_opts o = { .heads = 8 };
        eqnn_tensor *u = NULL, *q = NULL;
        eqnn_lie_lift(j->g, j->points, "lift", 1, &u, &q);
        return eqnn_lie_attention(j->x, eqnn_lie_pairs(j->g, u, q, graph), graph, "ema", &o);
    }
    eqnn_lie_cloud_make(j->g, j->points, j->particles.graph, "lift", 1, 0.2, &cloud);
    return eqnn_lie_conv(j->x, &cloud, "conv", j->channels, NULL);
}

static void lie_layer_forward(void *user)
{
    lie_job *j = (lie_job *)user;
    eqnn_recording(j->c, 0);
    lie_layer(j);
    eqnn_recording(j->c, 1);
    eqnn_reset(j->c);
}

static void lie_layer_both(void *user)
{
    lie_job *j = (lie_job *)user;
    eqnn_tensor *y = eqnn_sum(eqnn_square(lie_layer(j)));
    eqnn_grad(y, j->x);
    eqnn_backward(y);
    eqnn_reset(j->c);
}

static eqnn_tensor *lie_motion(eqnn_tensor *z, double t, void *user)
{
    lie_job *j = (lie_job *)user;
    eqnn_lie_resnet_opts o = { .layers = 4, .width = 384 };
    eqnn_lie_transformer_opts a = { .attention = { .attention = "dot_product" } };
    (void)t;
    if (j->attention)
        return eqnn_hamiltonian_field(
            eqnn_lie_transformer_energy(z, &j->particles, j->g, 1, "springs", &a), z);
    return eqnn_hamiltonian_field(
        eqnn_lie_energy(z, &j->particles, j->g, 1, 0.2, "springs", &o), z);
}

static void lie_train(void *user)
{
    lie_job *j = (lie_job *)user;
    static const double times[5] = { 0, 0.01, 0.02, 0.03, 0.04 };
    eqnn_ode_opts o = { .method = EQNN_RK38, .checkpoint = j->again };
    eqnn_tensor *y[5];
    if (eqnn_ode(lie_motion, j->x, times, 5, y, j, &o))
        eqnn_backward(eqnn_mean(eqnn_square(y[4])));
    eqnn_adam_step(j->adam);
    eqnn_reset(j->c);
}

static void lie_make(lie_job *j, const char *group, int sets, int nodes, int channels)
{
    static int example[2048];
    int n = sets * nodes;
    for (int i = 0; i < n; i++) example[i] = i / nodes;
    eqnn_graph_opts o = { .example = example, .examples = sets, .loops = 1, .keep = 1 };
    memset(j, 0, sizeof *j);
    j->c = context();
    j->g = eqnn_lie_make(j->c, group);
    j->particles.graph = eqnn_complete_graph(j->c, n, &o);
    j->points = eqnn_keep(eqnn_normal(j->c, "points", n, eqnn_lie_point_dim(j->g)));
    j->x = eqnn_keep(eqnn_normal(j->c, "x", n, channels));
    eqnn_tensor *constants = eqnn_uniform(j->c, "constants", n, 2);
    j->particles.constants = eqnn_keep(eqnn_shift(constants, 0.2));
    j->channels = channels;
    eqnn_reset(j->c);
}

/* A layer: forward, and with the gradients of features and weights. */
static void lie_layers(void)
{
    static const struct {
        const char *name, *group;
        int attention, sets, nodes, channels;
    } cases[4] = {
        { "lieconv_springs", "T(2)", 0, 200, 6, 96 },    { "lieconv_qm9", "T(3)", 0, 30, 18, 384 },
        { "attention_springs", "T(2)", 1, 100, 6, 160 }, { "attention_qm9", "T(3)", 1, 30, 18, 512 }
    };
    lie_job j;
    for (int i = 0; i < 4; i++) {
        int d = i % 2 + 2, channels = cases[i].channels, n = cases[i].sets * cases[i].nodes;
        if (!wanted(cases[i].name)) continue;
        lie_make(&j, cases[i].group, cases[i].sets, cases[i].nodes, channels);
        j.attention = cases[i].attention;
        double edges = j.particles.graph->edges, square = 2. * n * channels * channels;
        double heads = 8 * (16 * d + 16 * 16 + 16), kernel = 32 * d + 32 * 32 + 32 * 16;
        double flops = j.attention ? 4 * square + 2 * edges * (heads + 2 * channels)
                                   : 16 * square + 2 * edges * (kernel + 16 * channels);
        row r = { cases[i].name, "fwd", REAL, "eqnn", n, flops, 0, "", 0 };
        measure(r, lie_layer_forward, &j);
        r.pass = "fwd_bwd", r.flops *= 3;
        measure(r, lie_layer_both, &j);
        report(j.c, cases[i].name);
        end_of(j.c);
    }
}

/* Training steps take seconds: only when asked for. The matrix products of a field with its
   gradients are six times those of the energy: forward, by z, and the four of the reverse sweep;
   "again": the field is computed again in backward instead of remembered. */
static void lie_steps(void)
{
    static const struct { const char *name; int attention, sets; } cases[4] = {
        { "net_hlie_springs", 0, 200 },     { "net_hlie_springs_again", 0, 200 },
        { "net_lietrans_springs", 1, 100 }, { "net_lietrans_springs_again", 1, 100 },
    };
    lie_job j;
    for (int i = 0; i < 4 && getenv("BENCH_FILTER"); i++) {
        if (!wanted(cases[i].name)) continue;
        lie_make(&j, "T(2)", cases[i].sets, 6, 4);
        int attention = j.attention = cases[i].attention;
        j.again = i % 2;
        j.adam = eqnn_adam_make(j.c, NULL);
        lie_train(&j);
        char note[80];
        snprintf(note, sizeof note, "%d parameters, %.0f MB", (int)eqnn_parameter_size(j.c),
                 (double)eqnn_memory_use(j.c).step_peak / 1e6);
        double n = 6. * cases[i].sets, edges = 6 * n, c = attention ? 160 : 96;
        double layer = attention ? 6 * n * c * c + edges * (8 * 304 + 2 * c)
                                 : 24 * n * c * c + edges * (32 * 2 + 32 * 32 + 32 * 16 + 16 * c);
        row r = { cases[i].name, "train", REAL, "eqnn", cases[i].sets,
                  (attention ? 5 : 4) * 192 * layer, 0, note, 0 };
        measure(r, lie_train, &j);
        report(j.c, cases[i].name);
        end_of(j.c);
    }
}

int main(void)
{
    threads = (int)setting("THREADS", 1);
    const char *device = getenv("EQNN_DEVICE");
    int on_cpu = !device || !*device || !strcmp(device, "cpu");
    node_count = (int)setting("BENCH_ROWS", on_cpu ? 2000 : 100000) / 20;
    node_count = node_count > 0 ? node_count : 1;
    row_count = 20 * node_count;
    eqnn_ctx *c = context();
    printf("# eqnn %s, kernels of %s, %d threads\n", EQNN_VERSION,
           on_cpu ? c->device.loops->name : device, threads);
    printf("problem\tpass\tdtype\tthreads\tbatch\timpl\tmedian_ns\tp10_ns\tp90_ns\tmin_ns\t"
           "samples\tflops\tbytes\tnote\n");
    end_of(c);
#ifdef MACHINE
    if (on_cpu) limits();
#endif
    if (!on_cpu) device_limits();
    matrix_products();
    frames();
    harmonics();
    for (size_t i = 0; i < sizeof products / sizeof *products; i++)
        if (wanted(products[i].name)) product_problem(&products[i]);
    linears();
    contractions();
    nets();
    small_things();
    bases();
    lie_layers();
    lie_steps();
    return 0;
}
