/* The table of eqnn_cuda.cuh against the processor's, entry by entry, on small and odd shapes. The
   kernels run through tests/cuda_emulate.h, each twice, with threads in opposite orders: a missing
   barrier shows as other bits. */
#define EQNN__FORM_TILE 50 /* small forms take several tiles */
#define EQNN__GEMM_SPAN emulate_span
#define EQNN__FORM_GRID form_grid
#define EQNN__FORM_LONG form_long
#define EQNN__FORM_APART form_apart
#define EQNN__POLY_BLOCKS 0
#include "cuda_emulate.h"
static size_t form_grid = 2048;    /* blocks that positions are parted into */
static size_t form_long = 4;       /* from which ratio on dx is summed apart */
static size_t form_apart = 100000; /* with so many bytes at a time           */
#include "../eqnn_cuda.cuh"
#include "test.h"
#include <sys/wait.h>
#include "cuda_forms.h"

/* 0: a processor; 1, 2: the GPU, threads in both orders. */
enum { SIDES = 3 };
static eqnn__device side_device[SIDES];
static const eqnn__kernels *side_table[SIDES];
static const char *side_op = "test";
static int side;
static uint64_t side_serial;

static void open_sides(void)
{
    char why[400];
    memset(side_device, 0, sizeof side_device);
    for (side = 0; side < SIDES; side++) {
        eqnn__device *d = side_device + side;
        side_table[side] = side ? eqnn__cuda() : &eqnn__cpu;
        d->threads = 1;
        d->loops = eqnn__loops_pick(0);
        d->op = &side_op;
        d->scratch_size = side ? 0 : (size_t)1 << 22;
        d->scratch = side ? NULL : malloc(d->scratch_size);
        if (side < 2) CHECK(side_table[side]->begin(d, 0, why, sizeof why));
        else d->gpu = side_device[1].gpu;
    }
    side_serial = 1;
}

static void close_sides(void)
{
    free(side_device[0].scratch);
    for (side = SIDES - 1; side >= 0; side--) side_table[side]->end(side_device + side);
    CHECK(emulate_device.used == 0);
    side = 0;
}

static void wait_sides(void)
{
    char why[400] = "";
    int good = side_table[side]->wait(side_device + side, why, sizeof why);
    if (!good) printf("    %s\n", why);
    CHECK(good);
}

/* Calls an entry on every side; p(x) is the side's x. */
#define EACH(entry, ...)                                                          \
    for (side = 0; side < SIDES; side++) {                                        \
        emulate_backwards = side == 2;                                            \
        side_table[side]->entry(side_device + side, __VA_ARGS__);                 \
        wait_sides();                                                             \
    }                                                                             \
    emulate_backwards = side = 0

/* Bytes that every side has; numbers of the sides that compute. */
typedef struct copies { size_t bytes; void *p[SIDES]; } copies;

static copies copies_make(const void *from, size_t bytes)
{
    copies x;
    x.bytes = bytes;
    x.p[0] = malloc(bytes + 1);
    memcpy(x.p[0], from, bytes);
    for (int s = 1; s < SIDES; s++) {
        x.p[s] = side_table[s]->reserve(side_device + s, bytes);
        side_table[s]->copy(side_device + s, x.p[s], from, bytes, EQNN__TO_DEVICE);
    }
    return x;
}

static void copies_free(copies *x)
{
    free(x->p[0]);
    for (int s = 1; s < SIDES; s++) side_table[s]->release(side_device + s, x->p[s], x->bytes);
}

static copies reals(size_t n, double low, double high)
{
    eqnn_real *v = (eqnn_real *)malloc((n + 1) * sizeof *v);
    uint64_t stream = eqnn__stream(side_serial++, 0);
    for (size_t i = 0; i < n; i++)
        v[i] = (eqnn_real)(low + (high - low) * eqnn__uniform(stream, i));
    copies x = copies_make(v, n * sizeof *v);
    free(v);
    return x;
}

static eqnn_real *p(const copies &x)
{
    return (eqnn_real *)x.p[side];
}

static const int *pi(const copies &x)
{
    return (const int *)x.p[side];
}

/* Integers below `most`. */
static copies integers(size_t n, int most)
{
    int *v = (int *)malloc((n + 1) * sizeof *v);
    uint64_t stream = eqnn__stream(side_serial++, 1);
    for (size_t i = 0; i < n; i++) v[i] = (int)(eqnn__uniform(stream, i) * most);
    copies x = copies_make(v, n * sizeof *v);
    free(v);
    return x;
}

/* first[0..n] of n segments, some empty, of so many items in all. */
static copies borders(size_t n, int items)
{
    int *v = (int *)malloc((n + 2) * sizeof *v), at = 0;
    uint64_t stream = eqnn__stream(side_serial++, 2);
    for (size_t i = 0; i < n; i++) {
        v[i] = at;
        at += (int)(eqnn__uniform(stream, i) * 2 * (items - at) / (double)(n - i) + 0.2);
        if (at > items) at = items;
    }
    v[n] = items;
    copies x = copies_make(v, (n + 1) * sizeof *v);
    free(v);
    return x;
}

static copies permutation(size_t n)
{
    int *v = (int *)malloc((n + 1) * sizeof *v);
    uint64_t stream = eqnn__stream(side_serial++, 3);
    for (size_t i = 0; i < n; i++) {
        size_t k = (size_t)(eqnn__uniform(stream, i) * (double)(i + 1));
        v[i] = v[k];
        v[k] = (int)i;
    }
    copies x = copies_make(v, n * sizeof *v);
    free(v);
    return x;
}

/* The GPU's numbers have the same bits in both orders, and are near the processor's. */
static void check_reals(const copies &x, double tolerance, const char *what, int line)
{
    size_t n = x.bytes / sizeof(eqnn_real);
    eqnn_real *v[SIDES];
    double worst = 0, size = 1;
    v[0] = (eqnn_real *)x.p[0];
    for (int s = 1; s < SIDES; s++) {
        v[s] = (eqnn_real *)malloc(x.bytes + 1);
        side_table[s]->copy(side_device + s, v[s], x.p[s], x.bytes, EQNN__TO_HOST);
    }
    for (size_t i = 0; i < n; i++) {
        double a = (double)v[1][i], b = (double)v[0][i];
        int same = isnan(a) ? isnan(b) : isinf(a) || isinf(b) ? !(a < b) && !(a > b) : !isnan(b);
        if (!same) worst = INFINITY;
        if (!isfinite(a) || !isfinite(b)) continue;
        worst = fmax(worst, fabs(a - b));
        size = fmax(size, fabs(b));
    }
    if (memcmp(v[1], v[2], x.bytes)) test_check(0, what, line, "other bits in the other order");
    test_near(worst / size, 0, tolerance, what, line, "difference from the processor");
    for (int s = 1; s < SIDES; s++) free(v[s]);
}
#define CHECK_REALS(x, tolerance) check_reals(x, tolerance, what, __LINE__)
#define WHAT(...) snprintf(what, sizeof what, __VA_ARGS__)

static const size_t some_rows[] = {0, 1, 2, 31, 33, 300, 1100};
static const size_t some_cols[] = {1, 3, 4, 32, 33, 70};
#define EVERY(x, list) \
    for (size_t x##_ = 0, x; x##_ < sizeof list / sizeof *list && (x = list[x##_], 1); x##_++)

static double near_bits(double in_double, double in_float)
{
    return test_eps(in_double, in_float);
}

/* ---- pointwise ---- */

static eqnn__in operand(const copies &x, size_t rs, size_t cs)
{
    eqnn__in in = {p(x), rs, cs};
    return in;
}

static eqnn__in nothing(void)
{
    eqnn__in in = {NULL, 0, 0};
    return in;
}

TEST(map_one)
{
    static const size_t shapes[] = {1, 2, 5, 257, 1031};
    char what[200];
    open_sides();
    for (int op = 0; op <= EQNN_ARC; op++)
        for (int order = 0; order < 4; order++)
            EVERY(n, shapes) {
                int arc = op == EQNN_ARC, whole = op == EQNN_POLY_CUTOFF || op == EQNN_POW;
                copies x = reals(n, arc ? -0.2 : op == EQNN_LOG ? 0.1 : -2, arc ? 1.2 : 3);
                copies y = reals(n, 0, 0);
                WHAT("function %d, order %d, %zu numbers", op, order, n);
                EACH(map, op, order, 1, n, operand(x, 0, 1), nothing(), nothing(),
                     whole ? 6 : 0.3, 0, p(y));
                CHECK_REALS(y, near_bits(1e-12, 2e-5));
                copies_free(&x);
                copies_free(&y);
            }
    close_sides();
}

/* Far arguments, powers that are not whole, infinities; f(a) times b. */
TEST(map_far)
{
    static const int ops[] = {EQNN_SIN, EQNN_COS, EQNN_SINC, EQNN_POW,
                              EQNN_EXP, EQNN_TANH, EQNN_GELU};
    char what[200];
    open_sides();
    for (size_t k = 0; k < sizeof ops / sizeof *ops; k++)
        for (int order = 0; order < 2; order++) {
            copies x = reals(403, -9e6, 9e6), b = reals(403, -1, 1), y = reals(403, 0, 0);
            WHAT("function %d, order %d, far", ops[k], order);
            EACH(map, ops[k], order, 1, (size_t)403, operand(x, 0, 1), operand(b, 0, 1), nothing(),
                 0.37, 0, p(y));
            CHECK_REALS(y, near_bits(1e-12, 2e-5));
            copies_free(&x), copies_free(&b), copies_free(&y);
        }
    close_sides();
}

/* Every way an operand stretches. */
TEST(map_many)
{
    char what[200];
    open_sides();
    for (int op = EQNN__ADD; op <= EQNN__FMA; op++)
        EVERY(rows, some_rows) EVERY(cols, some_cols) {
            if (rows > 31 && cols > 4 && cols != 33) continue;
            for (int way = 0; way < 6; way++) {
                static const int stretch[6][3] = {{0, 0, 0}, {1, 2, 3}, {3, 1, 2},
                                                  {2, 0, 1}, {0, 2, 0}, {4, 0, 4}};
                copies x[3], y = reals(rows * cols, 0, 0);
                eqnn__in in[3];
                for (int s = 0; s < 3; s++) x[s] = reals(2 * rows * cols + cols + rows, -2, 2);
                WHAT("operation %d, %zu by %zu, way %d", op, rows, cols, way);
                for (side = 0; side < SIDES; side++) {
                    for (int s = 0; s < 3; s++) {
                        int t = stretch[way][s]; /* 0 matrix, 1 row, 2 column, 3 number, 4 wider */
                        size_t rs = t == 0 ? cols : t == 2 ? 1 : t == 4 ? 2 * cols : 0;
                        in[s] = operand(x[s], rs, t == 0 || t == 1 ? 1 : t == 4 ? 2 : 0);
                    }
                    emulate_backwards = side == 2;
                    side_table[side]->map(side_device + side, op, 0, rows, cols, in[0], in[1],
                                          in[2], 0.7, -1.3, p(y));
                    wait_sides();
                }
                side = emulate_backwards = 0;
                CHECK_REALS(y, near_bits(1e-14, 1e-6));
                for (int s = 0; s < 3; s++) copies_free(&x[s]);
                copies_free(&y);
            }
        }
    close_sides();
}

TEST(random)
{
    static const size_t shapes[] = {0, 1, 2, 999};
    char what[200];
    open_sides();
    for (int kind = EQNN__UNIFORM; kind <= EQNN__MASK; kind++)
        EVERY(n, shapes) {
            copies y = reals(n, 0, 0);
            WHAT("random %d, %zu", kind, n);
            EACH(random, kind, 77, 5, n, 0.3, p(y));
            CHECK_REALS(y, near_bits(1e-14, 1e-6));
            copies_free(&y);
        }
    close_sides();
}

TEST(check_finds_the_first)
{
    char why[400];
    open_sides();
    copies x = reals(5000, -1, 1);
    eqnn__device *d = side_device + 1;
    eqnn_real *there = (eqnn_real *)x.p[1], bad = (eqnn_real)NAN, inf = (eqnn_real)HUGE_VAL;
    side = 1;
    d->step = 10;
    side_table[1]->check(d, 5000, there);
    wait_sides();
    CHECK(!d->flag);
    side_table[1]->copy(d, there + 4321, &bad, sizeof bad, EQNN__TO_DEVICE);
    side_table[1]->copy(d, there + 777, &inf, sizeof inf, EQNN__TO_DEVICE);
    side_table[1]->check(d, 500, there);
    d->step = 12;
    side_table[1]->check(d, 5000, there);
    d->step = 13;
    side_table[1]->check(d, 5000, there);
    CHECK(!d->flag);
    CHECK(side_table[1]->wait(d, why, sizeof why));
    CHECK(d->flag == 1 && d->bad_step == 12 && d->bad == there + 777);
    d->flag = 0;
    side_table[1]->check(d, 0, there);
    CHECK(side_table[1]->wait(d, why, sizeof why));
    CHECK(!d->flag);
    copies_free(&x);
    close_sides();
}

/* ---- folds ---- */

TEST(folds)
{
    static const size_t long_rows[] = {1, 40, 2500, 40000};
    char what[200];
    open_sides();
    for (int op = EQNN__SUM; op <= EQNN__MAX; op++)
        for (int tall = 0; tall < 2; tall++)
            for (size_t i = 0; i < (tall ? 4 : 7); i++)
                for (size_t k = 0; k < (tall ? 4 : 6); k++) {
                    size_t rows = tall ? long_rows[i] : some_rows[i];
                    size_t cols = tall ? long_rows[k] : some_cols[k];
                    if (tall && rows * cols > 200000) continue;
                    copies x = reals(rows * cols, -1, 1), y = reals(cols, 0, 0);
                    copies z = reals(rows, 0, 0);
                    WHAT("fold %d of %zu by %zu", op, rows, cols);
                    EACH(fold_rows, op, rows, cols, p(x), p(y));
                    CHECK_REALS(y, near_bits(1e-12, 1e-5));
                    EACH(fold_cols, op, rows, cols, p(x), p(z));
                    CHECK_REALS(z, near_bits(1e-12, 1e-5));
                    WHAT("products of %zu by %zu, folded", rows, cols);
                    copies with = reals(rows * cols, -1, 1);
                    EACH(dot_rows, rows, cols, p(x), p(with), p(y));
                    CHECK_REALS(y, near_bits(1e-12, 1e-5));
                    copies_free(&x), copies_free(&y), copies_free(&z), copies_free(&with);
                }
    close_sides();
}

TEST(no_columns_to_fold)
{
    char what[200];
    open_sides();
    for (int op = EQNN__SUM; op <= EQNN__MAX; op++) {
        copies x = reals(0, 0, 0), y = reals(5, 3, 4);
        WHAT("fold %d of 5 by 0", op);
        EACH(fold_cols, op, (size_t)5, (size_t)0, p(x), p(y));
        CHECK_REALS(y, 0);
        copies_free(&x), copies_free(&y);
    }
    close_sides();
}

TEST(segments)
{
    static const size_t segments[] = {1, 2, 19, 2000};
    static const size_t cols_of[] = {1, 4, 33};
    char what[200];
    open_sides();
    EVERY(n, segments) EVERY(cols, cols_of) for (int ordered = 0; ordered < 2; ordered++) {
        size_t items = n > 1000 ? n + n / 2 : 2 * n + 200;
        if (n > 1000 && (cols > 1 || ordered)) continue;
        copies first = borders(n, (int)items), order = permutation(items);
        copies x = reals(items * cols, -1, 1), y = reals(n * cols, 0, 0);
        copies z = reals(items * cols, 0, 0);
        for (int op = EQNN__SUM; op <= EQNN__MAX; op++) {
            WHAT("fold %d of %zu segments by %zu%s", op, n, cols, ordered ? ", ordered" : "");
            EACH(fold_segments, op, n, pi(first), ordered ? pi(order) : NULL, cols, p(x), p(y));
            CHECK_REALS(y, near_bits(1e-12, 1e-5));
        }
        EACH(softmax, n, pi(first), ordered ? pi(order) : NULL, cols, p(x), p(z));
        CHECK_REALS(z, near_bits(1e-13, 1e-6));
        copies_free(&first), copies_free(&order);
        copies_free(&x), copies_free(&y), copies_free(&z);
    }
    close_sides();
}

TEST(softmax_of_rows)
{
    char what[200];
    open_sides();
    EVERY(rows, some_rows) EVERY(cols, some_cols) {
        copies x = reals(rows * cols, -40, 40), y = reals(rows * cols, 0, 0);
        WHAT("softmax %zu by %zu", rows, cols);
        EACH(softmax, rows, NULL, NULL, cols, p(x), p(y));
        CHECK_REALS(y, near_bits(1e-13, 1e-6));
        copies_free(&x), copies_free(&y);
    }
    close_sides();
}

/* Many equals, so that who is first matters; NaN and infinities in all places. */
static copies levels(size_t n, int awkward)
{
    static const eqnn_real odd[4] = {(eqnn_real)NAN, -(eqnn_real)HUGE_VAL, (eqnn_real)HUGE_VAL, 1};
    eqnn_real *v = (eqnn_real *)malloc((n + 1) * sizeof *v);
    uint64_t stream = eqnn__stream(side_serial++, 4);
    for (size_t i = 0; i < n; i++) {
        int k = (int)(eqnn__uniform(stream, i) * 5);
        v[i] = awkward && k < 4 ? odd[awkward == 1 ? k : 1 - k % 2] : (eqnn_real)(k - 3);
    }
    copies x = copies_make(v, n * sizeof *v);
    free(v);
    return x;
}

TEST(largest)
{
    static const size_t segments[] = {1, 2, 19, 2000};
    static const size_t cols_of[] = {1, 4, 33};
    char what[200];
    open_sides();
    EVERY(rows, some_rows) EVERY(cols, cols_of) for (int awkward = 0; awkward < 3; awkward++) {
        if (rows * cols > 10000) continue;
        copies x = levels(rows * cols, awkward), at = reals(rows, 5, 6);
        copies mask = reals(rows * cols, 5, 6);
        WHAT("largest of %zu by %zu, awkward %d", rows, cols, awkward);
        EACH(largest, rows, NULL, NULL, cols, p(x), p(at), p(mask));
        CHECK_REALS(at, 0);
        CHECK_REALS(mask, 0);
        copies_free(&x), copies_free(&at), copies_free(&mask);
    }
    EVERY(n, segments) EVERY(cols, cols_of) for (int way = 0; way < 6; way++) {
        size_t items = n > 1000 ? n + n / 2 : 2 * n + 200;
        int ordered = way % 2;
        if (n > 1000 && (cols > 1 || way)) continue;
        copies first = borders(n, (int)items), order = permutation(items);
        copies x = levels(items * cols, way / 2), at = reals(n * cols, 5, 6);
        copies mask = reals(items * cols, 5, 6);
        WHAT("largest of %zu segments by %zu, way %d", n, cols, way);
        EACH(largest, n, pi(first), ordered ? pi(order) : NULL, cols, p(x), NULL, p(mask));
        EACH(largest, n, pi(first), ordered ? pi(order) : NULL, cols, p(x), p(at), NULL);
        CHECK_REALS(at, 0);
        CHECK_REALS(mask, 0);
        copies_free(&first), copies_free(&order);
        copies_free(&x), copies_free(&at), copies_free(&mask);
    }
    close_sides();
}

TEST(standard)
{
    static const size_t widths[] = {1, 2, 7, 64, 300, 1000};
    char what[200];
    open_sides();
    EVERY(rows, some_rows) EVERY(cols, widths) for (int one = 0; one < 2; one++) {
        if (rows * cols > 30000) continue;
        copies x = reals(rows * cols, 3, 5), g = reals(rows * (cols + 1), -1, 1);
        copies y = reals(rows * (cols + (size_t)one), 0, 0), z = reals(rows * cols, 0, 0);
        WHAT("standard %zu by %zu, one %d", rows, cols, one);
        EACH(standard, rows, cols, one, 1e-3, p(x), NULL, p(y));
        CHECK_REALS(y, near_bits(1e-11, 1e-4));
        EACH(standard, rows, cols, one, 1e-3, p(x), p(g), p(z));
        CHECK_REALS(z, near_bits(1e-10, 1e-4));
        copies_free(&x), copies_free(&g), copies_free(&y), copies_free(&z);
    }
    close_sides();
}

TEST(total)
{
    static const size_t shapes[] = {0, 1, 255, 4096, 4097, 100000};
    open_sides();
    EVERY(n, shapes) for (int way = 0; way < 4; way++) {
        int squares = way & 1, add = way >> 1;
        double start = 0.25, sum[SIDES];
        copies x = reals(n, -1, 1), y = copies_make(&start, sizeof start);
        EACH(total, squares, n, n ? p(x) : NULL, (double *)y.p[side], add);
        for (int s = 0; s < SIDES; s++)
            side_table[s]->copy(side_device + s, sum + s, y.p[s], sizeof *sum, EQNN__TO_HOST);
        CHECK_NEAR(sum[1], sum[0], 1e-12);
        CHECK(!memcmp(sum + 1, sum + 2, sizeof *sum));
        copies_free(&x), copies_free(&y);
    }
    close_sides();
}

/* ---- moving ---- */

TEST(rows_and_columns)
{
    char what[200];
    open_sides();
    EVERY(rows, some_rows) EVERY(cols, some_cols) {
        size_t n = 2 * rows + 1;
        copies x = reals((rows + 1) * (cols + 5), -1, 1), index = integers(n, (int)rows + 1);
        copies y = reals(n * cols, 0, 0), t = reals(rows * cols, 0, 0);
        copies wide = reals(rows * (cols + 4), 0, 1);
        WHAT("%zu by %zu", rows, cols);
        EACH(take_rows, n, cols, pi(index), p(x), p(y));
        CHECK_REALS(y, 0);
        EACH(transpose, rows, cols, p(x), p(t));
        CHECK_REALS(t, 0);
        for (int add = 0; add < 2; add++) {
            EACH(copy2d, rows, cols, p(x) + 1, cols + 3, p(wide), cols + 4, add);
            CHECK_REALS(wide, 0);
            EACH(copy2d, rows, cols, p(x), cols, p(wide), cols, add);
            CHECK_REALS(wide, 0);
            EACH(copy2d, rows, cols, p(x), cols + 4, p(wide), cols + 4, add);
            CHECK_REALS(wide, 0);
        }
        copies_free(&x), copies_free(&index), copies_free(&y), copies_free(&t), copies_free(&wide);
    }
    EVERY(rows, some_rows) EVERY(cols, some_cols) {
        copies x = reals(rows * 40, -1, 1), map = integers(cols, 40), y = reals(rows * cols, 0, 0);
        copies first = borders(cols, 60), list = integers(60, 40);
        WHAT("columns %zu by %zu", rows, cols);
        EACH(take_cols, rows, cols, pi(map), p(x), (size_t)40, p(y));
        CHECK_REALS(y, 0);
        EACH(add_cols, rows, cols, pi(first), pi(list), p(x), (size_t)40, p(y));
        CHECK_REALS(y, near_bits(1e-15, 1e-6));
        copies_free(&x), copies_free(&map), copies_free(&y);
        copies_free(&first), copies_free(&list);
    }
    close_sides();
}

TEST(copies_and_fills)
{
    char what[200];
    size_t sizes[] = {0, 1, 100, 70000, 150000}; /* nine of the last fill the ring */
    open_sides();
    EVERY(n, sizes) {
        copies x = reals(n, -1, 1), y = reals(n, 0, 0), z = reals(n, 0, 1);
        eqnn_real *v = (eqnn_real *)malloc(n * sizeof *v + 1);
        WHAT("copy of %zu", n);
        EACH(copy, p(y), p(x), n * sizeof *v, EQNN__WITHIN);
        CHECK_REALS(y, 0);
        EACH(fill, n, -0.75, p(z));
        CHECK_REALS(z, 0);
        EACH(fill, n, 0, p(z));
        CHECK_REALS(z, 0);
        for (side = 0; side < SIDES; side++) { /* the source is overwritten at once */
            for (int k = 0; k < 9; k++) {
                for (size_t i = 0; i < n; i++) v[i] = (eqnn_real)(k + (double)i / 8);
                side_table[side]->copy(side_device + side, p(y), v, n * sizeof *v, EQNN__TO_DEVICE);
                for (size_t i = 0; i < n; i++) v[i] = -1;
            }
        }
        side = 0;
        CHECK_REALS(y, 0);
        free(v);
        copies_free(&x), copies_free(&y), copies_free(&z);
    }
    close_sides();
}

/* ---- matrix product ---- */

typedef struct product { size_t m, n, k, batch; } product;

static void check_gemm(product q, int ta, int tb, double beta, int how)
{
    char what[200];
    size_t m = q.m, n = q.n, k = q.k, batch = q.batch, pad = how == 1 ? 3 : 0;
    size_t lda = (ta ? m : k) + pad, ldb = (tb ? k : n) + pad, ldc = n + pad;
    size_t sa = how == 2 ? 0 : (ta ? k : m) * lda, sb = (tb ? n : k) * ldb, sc = m * ldc;
    if (how == 3) { /* columns of one matrix, as a linear map of irreps has them */
        sc = 0;
        if (!ta) sa = k, lda = k * batch;
        if (tb) sb = k, ldb = k * batch;
    }
    if (how == 4) sc = 0;
    copies A = reals(batch * sa + (ta ? k : m) * lda + 4, -1, 1);
    copies B = reals(batch * sb + (tb ? n : k) * ldb + 4, -1, 1);
    copies C = reals(batch * sc + m * ldc + 4, -1, 1);
    WHAT("product %zu %zu %zu, batch %zu, turned %d %d, beta %g, way %d", m, n, k, batch, ta, tb,
         beta, how);
    EACH(gemm, ta, tb, m, n, k, 0.7, p(A), lda, sa, p(B), ldb, sb, beta, p(C), ldc, sc, batch);
    CHECK_REALS(C, near_bits(1e-13, 1e-5));
    copies_free(&A), copies_free(&B), copies_free(&C);
}

TEST(products)
{
    static const product shapes[] = {{1, 1, 1, 1}, {3, 5, 7, 1}, {33, 1, 20, 2}, {1, 17, 9, 3},
                                     {40, 33, 70, 1}, {5, 4, 0, 2}, {6, 3, 8, 9}, {2, 2, 3, 40},
                                     {0, 3, 4, 1}, {3, 4, 5, 0}, {9, 300, 2100, 1},
                                     {7, 5, 9, 40}};
    const size_t span = emulate_span;
    open_sides();
    for (int parts = 0; parts < 2; parts++, emulate_span = 500)
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
            for (int t = 0; t < 4; t++)
                for (int how = 0; how < (shapes[i].batch > 1 ? 5 : 2); how++)
                    check_gemm(shapes[i], t & 1, t >> 1, how % 2 ? 0.5 : 0, how);
    emulate_span = span;
    close_sides();
}

/* beta 0 does not read C. */
TEST(product_into_nan)
{
    char what[200];
    open_sides();
    for (size_t k = 0; k < 3; k++) {
        copies A = reals(12, -1, 1), B = reals(12, -1, 1), C = reals(16, NAN, NAN);
        WHAT("product into NaN, k = %zu", k);
        EACH(gemm, 0, 0, 4, 4, k, 1.0, p(A), k, 0, p(B), 4, 0, 0.0, p(C), 4, 0, 2);
        CHECK_REALS(C, near_bits(1e-14, 1e-6));
        for (int i = 0; i < 16; i++) CHECK(isfinite(((eqnn_real *)C.p[0])[i]));
        copies_free(&A), copies_free(&B), copies_free(&C);
    }
    close_sides();
}

/* ---- harmonics ---- */

TEST(harmonics)
{
    static const size_t points[] = {0, 1, 5, 33, 200};
    static const int degrees[] = {0, 1, 2, 3, 4, 5, 6, 7, 9, 16, 19};
    char what[200];
    open_sides();
    for (size_t k = 0; k < sizeof degrees / sizeof *degrees; k++) EVERY(n, points) {
        int l = degrees[k];
        size_t cols = (size_t)(l + 1) * (size_t)(l + 1);
        copies x = reals(3 * n, -1, 1), Y = reals(n * cols, 0, 0), J = reals(3 * n * cols, 0, 0);
        copies g = reals(n * cols, -1, 1), dx = reals(3 * n, 0, 0);
        double tolerance = near_bits(1e-12, l > 6 ? 1e-4 : 1e-5);
        WHAT("harmonics to %d at %zu points", l, n);
        EACH(solid, l, n, p(x), p(Y), NULL);
        CHECK_REALS(Y, tolerance);
        EACH(solid, l, n, p(x), p(Y), p(J));
        CHECK_REALS(Y, tolerance);
        CHECK_REALS(J, tolerance);
        if (l > 0 && l <= EQNN__SOLID_LMAX) {
            EACH(solid_vjp, l, n, p(x), p(g), p(dx));
            CHECK_REALS(dx, tolerance);
        }
        copies_free(&x), copies_free(&Y), copies_free(&J), copies_free(&g), copies_free(&dx);
    }
    close_sides();
}

/* ---- training ---- */

static void check_update(const eqnn__update &u, size_t n, int moments, double squares, size_t skip)
{
    char what[200];
    copies w = reals(n + skip, -1, 1), g = reals(n + skip, -1, 1), s1 = reals(n + skip, 0, 1);
    copies s2 = reals(n + skip, 0, 1), s3 = reals(n + skip, 0, 1);
    copies norm = copies_make(&squares, sizeof squares);
    eqnn__update mine = u;
    WHAT("update %d of %zu, moments %d, squares %g", u.kind, n, moments, squares);
    for (side = 0; side < SIDES; side++) {
        emulate_backwards = side == 2;
        mine.squares = squares >= 0 ? (const double *)norm.p[side] : NULL;
        side_table[side]->update(side_device + side, &mine, n, p(w) + skip,
                                 u.kind == EQNN__EMA ? NULL : p(g) + skip,
                                 moments > 0 ? p(s1) + skip : NULL,
                                 moments > 1 ? p(s2) + skip : NULL,
                                 moments > 2 ? p(s3) + skip : NULL);
        wait_sides();
    }
    side = emulate_backwards = 0;
    CHECK_REALS(w, near_bits(1e-13, 1e-5));
    CHECK_REALS(s1, near_bits(1e-13, 1e-5));
    CHECK_REALS(s2, near_bits(1e-13, 1e-5));
    CHECK_REALS(s3, near_bits(1e-13, 1e-5));
    CHECK_REALS(g, 0);
    copies_free(&w), copies_free(&g), copies_free(&s1), copies_free(&s2), copies_free(&s3);
    copies_free(&norm);
}

static eqnn__update some_update(int kind)
{
    eqnn__update u;
    memset(&u, 0, sizeof u);
    u.kind = kind;
    u.rate = 0.01, u.beta1 = 0.9, u.beta2 = 0.99, u.eps = 1e-8, u.decay = 0.01, u.l2 = 0.02;
    u.correct1 = 0.3, u.correct2 = 0.1, u.clip = 2;
    return u;
}

static eqnn__frame_plan frame_plan(int lmax)
{
    eqnn__frame_plan f;
    f.lmax = lmax;
    f.terms = (eqnn__frame_terms *)calloc((size_t)(lmax + 1) * (size_t)(lmax + 1), sizeof *f.terms);
    for (int l = 1; l <= lmax; l++)
        for (int m = -l; m <= l; m++) {
            eqnn__frame_terms *t = f.terms + l * l + l + m;
            t->n = eqnn__gradient_terms(l, m, t->t);
        }
    return f;
}

/* No direction, all axes both ways, nearly those that the two charts begin at, and any; of all
   lengths that a number can have. */
static copies directions(size_t n)
{
    eqnn_real *v = (eqnn_real *)malloc((3 * n + 1) * sizeof *v);
    uint64_t stream = eqnn__stream(side_serial++, 5);
    for (size_t e = 0; e < n; e++) {
        double scale = e % 5 == 3 ? 1e-30 : e % 5 == 4 ? 1e30 : 1;
        for (size_t k = 0; k < 3; k++) {
            double u = e < 7 ? 0 : 2 * eqnn__uniform(stream, 3 * e + k) - 1;
            if (e > 0 && e < 7 && k == (e - 1) / 2) u = e % 2 ? 1 : -1;
            if (e >= 7 && e < 15 && k != 1) u *= 1e-4;
            if (e >= 15 && e < 19 && k == 1) u = -0.5;
            v[3 * e + k] = (eqnn_real)(u * scale);
        }
    }
    copies x = copies_make(v, 3 * n * sizeof *v);
    free(v);
    return x;
}

/* A turn about x, about y or about z for every edge. */
static copies turns(size_t n)
{
    double *v = (double *)calloc(9 * n + 1, sizeof *v);
    uint64_t stream = eqnn__stream(side_serial++, 6);
    for (size_t e = 0; e < n; e++) {
        size_t a = e % 3, b = (a + 1) % 3, c = (a + 2) % 3;
        double angle = 7 * eqnn__uniform(stream, e), *R = v + 9 * e;
        R[4 * a] = 1;
        R[4 * b] = R[4 * c] = cos(angle);
        R[3 * b + c] = -sin(angle);
        R[3 * c + b] = sin(angle);
    }
    copies x = copies_make(v, 9 * n * sizeof *v);
    free(v);
    return x;
}

TEST(frames)
{
    static const int degrees[] = {0, 1, 2, 6, 11, 32};
    static const size_t edges[] = {0, 1, 19, 101};
    char what[200];
    eqnn__frame_plan plan[6];
    open_sides();
    for (int i = 0; i < 6; i++) plan[i] = frame_plan(degrees[i]);
    for (int i = 0; i < 6; i++) EVERY(n, edges) for (int way = 0; way < 3; way++) {
        int lmax = degrees[i], mmax = way == 1 && lmax > 1 ? 1 : lmax;
        if (lmax == 32 && n > 19) continue;
        copies r = directions(n), given = turns(n);
        copies D = reals(n * (size_t)eqnn__frame_column(lmax + 1, mmax), 5, 6);
        WHAT("frames of %zu edges, lmax %d, mmax %d, way %d", n, lmax, mmax, way);
        for (side = 0; side < SIDES; side++) {
            emulate_backwards = side == 2;
            side_table[side]->frame(side_device + side, plan + i, mmax, n, p(r),
                                    way == 2 ? (const double *)given.p[side] : NULL, p(D));
            wait_sides();
        }
        side = emulate_backwards = 0;
        CHECK_REALS(D, near_bits(1e-13, 1e-6));
        copies_free(&r), copies_free(&given), copies_free(&D);
    }
    for (int i = 0; i < 6; i++) free(plan[i].terms);
    close_sides();
}

TEST(updates)
{
    static const size_t shapes[] = {0, 1, 3, 4, 130, 2047};
    open_sides();
    EVERY(n, shapes) for (int way = 0; way < 4; way++) {
        eqnn__update u = some_update(EQNN__ADAM);
        double squares = way == 0 ? -1 : way == 1 ? 100 : way == 2 ? 0 : 1e-3;
        size_t skip = way == 3 ? 1 : 0;
        check_update(u, n, 2, squares, skip);
        check_update(u, n, 3, squares, skip);
        u.kind = EQNN__EMA;
        check_update(u, n, 1, -1, skip);
        u.kind = EQNN__SGD;
        check_update(u, n, 0, squares, skip);
        u.momentum = 0.9;
        u.nesterov = way % 2;
        check_update(u, n, 1, squares, skip);
    }
    close_sides();
}

/* Once check has found something, nothing changes until the host has heard of it. */
TEST(updates_stop)
{
    char why[400];
    open_sides();
    eqnn__update u = some_update(EQNN__SGD);
    copies w = reals(100, -1, 1), g = reals(100, NAN, NAN), h = reals(100, -1, 1);
    eqnn__device *d = side_device + 1;
    const eqnn__kernels *k = side_table[1];
    eqnn_real *before = (eqnn_real *)w.p[0], after[100];
    k->check(d, 100, (eqnn_real *)g.p[1]);
    k->update(d, &u, 100, (eqnn_real *)w.p[1], (eqnn_real *)g.p[1], NULL, NULL, NULL);
    k->update(d, &u, 100, (eqnn_real *)w.p[1], (eqnn_real *)h.p[1], NULL, NULL, NULL);
    k->copy(d, after, w.p[1], sizeof after, EQNN__TO_HOST);
    CHECK(!memcmp(before, after, sizeof after));
    CHECK(k->wait(d, why, sizeof why) && d->flag == 1);
    k->update(d, &u, 100, (eqnn_real *)w.p[1], (eqnn_real *)h.p[1], NULL, NULL, NULL);
    k->copy(d, after, w.p[1], sizeof after, EQNN__TO_HOST);
    CHECK(memcmp(before, after, sizeof after));
    copies_free(&w), copies_free(&g), copies_free(&h);
    close_sides();
}

/* ---- neighbours ---- */

/* A context whose numbers live on the emulated GPU, and whose own memory no kernel may touch. */
static eqnn_ctx *gpu_context(void)
{
    eqnn_opts o = test_opts();
    o.device = "cuda:0";
    o.alloc = emulate_alloc;
    eqnn_ctx *c = eqnn_make(&o);
    CHECK_OK(c);
    return test_contexts[test_context_count++] = c;
}

/* n of these, equal here and there to the processor's? */
static int same_ints(eqnn_ctx *c, const int *want, const int *here, const int *there, int n)
{
    std::vector<int> copy((size_t)n + 1);
    if (!want || !here || !there) return !want && !here && !there;
    c->k->copy(&c->device, copy.data(), there, (size_t)n * sizeof(int), EQNN__TO_HOST);
    return !memcmp(want, here, (size_t)n * sizeof(int)) &&
           !memcmp(want, copy.data(), (size_t)n * sizeof(int));
}

static int same_index(const eqnn_ints *want, const eqnn_ints *x)
{
    if (!want || !x) return !want && !x;
    eqnn_ctx *c = x->ctx;
    return want->count == x->count && want->range == x->range && want->keep == x->keep &&
           same_ints(c, want->v, x->v, x->there.v, x->count) &&
           same_ints(c, want->first, x->first, x->there.first, x->range + 1) &&
           same_ints(c, want->list, x->list, x->there.list, x->count);
}

static int same_shifts(const eqnn_graph *want, const eqnn_graph *g)
{
    size_t bytes = 3 * (size_t)want->edges * sizeof(eqnn_real);
    std::vector<char> copy(bytes + 1);
    if (!want->shift) return !g->shift && !g->there->shift;
    g->ctx->k->copy(&g->ctx->device, copy.data(), g->there->shift, bytes, EQNN__TO_HOST);
    return !memcmp(want->shift, g->shift, bytes) && !memcmp(want->shift, copy.data(), bytes);
}

static int same_graphs(const eqnn_graph *want, const eqnn_graph *g)
{
    const eqnn_graph *t = g->there;
    eqnn_ctx *c = g->ctx;
    int n = want->targets, edges = want->edges;
    return g->targets == n && g->sources == n && g->edges == edges && g->pairs == want->pairs &&
           g->examples == want->examples && g->blocks == want->blocks && t != g &&
           t->edges == edges && t->pairs == g->pairs && t->blocks == g->blocks &&
           same_ints(c, want->source, g->source, t->source, edges) &&
           same_ints(c, want->target, g->target, t->target, edges) &&
           same_ints(c, want->first, g->first, t->first, n + 1) &&
           same_ints(c, want->by_source, g->by_source, t->by_source, edges) &&
           same_ints(c, want->first_by_source, g->first_by_source, t->first_by_source, n + 1) &&
           same_ints(c, want->example, g->example, t->example, n) &&
           same_ints(c, want->pair, g->pair, t->pair, edges) &&
           same_ints(c, want->pair_edge, g->pair_edge, t->pair_edge, want->pairs) &&
           same_ints(c, want->block, g->block, t->block, want->blocks + 1) &&
           same_ints(c, g->order, g->order, t->order, edges) &&
           same_index(want->source_index, g->source_index) &&
           same_index(want->target_index, g->target_index) &&
           same_index(want->example_index, g->example_index) &&
           same_index(want->pair_index, g->pair_index) &&
           same_index(want->pair_edge_index, g->pair_edge_index) && same_shifts(want, g);
}

/* A cloud of points, and the contexts that search it: a processor, a GPU. */
typedef struct cloud {
    eqnn_ctx *c[2];
    std::vector<eqnn_real> x;
    eqnn_graph_opts o;
} cloud;

static cloud cloud_make(void)
{
    cloud q;
    q.c[0] = test_context();
    q.c[1] = gpu_context();
    memset(&q.o, 0, sizeof q.o);
    return q;
}

static void cloud_fill(cloud *q, size_t n, double low, double high)
{
    uint64_t stream = eqnn__stream(side_serial++, 4);
    q->x.resize(3 * n);
    for (size_t i = 0; i < 3 * n; i++)
        q->x[i] = (eqnn_real)(low + (high - low) * eqnn__uniform(stream, i));
}

static eqnn_tensor *cloud_points(const cloud *q, int where)
{
    static const eqnn_real none[1] = { 0 };
    return eqnn_from(q->c[where], (int)(q->x.size() / 3), 3, q->x.empty() ? none : q->x.data());
}

/* Both find the same graph, kept or not, threads in either order; its edges, -1: an error. */
static int check_cloud(const cloud *q, double radius, const char *what)
{
    eqnn_graph_opts o = q->o;
    const eqnn_graph *want = eqnn_radius_graph(cloud_points(q, 0), radius, &o);
    int edges = want ? want->edges : -1;
    for (int way = 0; way < 2; way++) {
        emulate_backwards = way;
        eqnn_tensor *pos = cloud_points(q, 1);
        long waits = emulate_waits;
        const eqnn_graph *g = eqnn_radius_graph(pos, radius, &o);
        waits = emulate_waits - waits;
        if (!want && eqnn_error(q->c[0])) {
            CHECK_TEXT(eqnn_error(q->c[1]) ? eqnn_error(q->c[1]) : "none", eqnn_error(q->c[0]));
            eqnn_clear(q->c[1]);
            continue;
        }
        int good = g && same_graphs(want, g);
        if (!good)
            printf("    %s, way %d: %d edges, %d pairs, %d blocks (%d, %d, %d) %s\n", what, way,
                   edges, want->pairs, want->blocks, g ? g->edges : -1, g ? g->pairs : -1,
                   g ? g->blocks : -1, eqnn_error(q->c[1]) ? eqnn_error(q->c[1]) : "");
        CHECK(good && waits <= 8);
        if (g && o.cell) {
            eqnn_tensor *r = eqnn_edge_vectors(pos, g);
            eqnn_tensor *s = eqnn_edge_vectors(cloud_points(q, 0), want);
            CHECK(r && s && !memcmp(eqnn_data(r), eqnn_data(s),
                                    3 * (size_t)edges * sizeof(eqnn_real)));
        }
        eqnn_reset(q->c[1]);
    }
    emulate_backwards = 0;
    if (!want) eqnn_clear(q->c[0]);
    eqnn_reset(q->c[0]);
    return edges;
}

TEST(neighbours)
{
    static const size_t sizes[] = { 0, 1, 2, 3, 31, 33, 200, 700 };
    static const double radii[] = { 1e-3, 0.6, 1.3, 5, 1e300, INFINITY };
    char what[200];
    cloud q = cloud_make();
    int most = 0;
    EVERY(n, sizes) for (double radius : radii) for (int loops = 0; loops < 2; loops++) {
        if (n > 200 && radius > 2) continue;
        WHAT("%zu points, radius %g, loops %d", n, radius, loops);
        cloud_fill(&q, n, -3, 4);
        q.o.loops = loops;
        q.o.keep = n == 31;
        int edges = check_cloud(&q, radius, what);
        CHECK(edges >= (loops ? (int)n : 0));
        if (edges > most) most = edges;
    }
    CHECK(most >= 200 * 200); /* everybody hears everybody */
}

/* Two clusters far apart, points at the end of what fits a number, and clusters of one point. */
TEST(neighbours_far_and_together)
{
    static const double gaps[] = { 0, 1e3, 1e7, 1e12, 1e30 };
    char what[200];
    cloud q = cloud_make();
    for (double gap : gaps) {
        cloud_fill(&q, 80, -1, 1);
        for (size_t i = 120; i < 240; i++) q.x[i] = (eqnn_real)((double)q.x[i] + gap);
        for (size_t i = 0; i < 30; i++) q.x[i] = q.x[i % 3];
        WHAT("gap %g", gap);
        CHECK(check_cloud(&q, 0.7, what) > 90);
    }
    for (size_t i = 0; i < q.x.size(); i++) q.x[i] = (eqnn_real)(i % 2 ? 1e38 : -1e38);
    CHECK(check_cloud(&q, 0.7, "far points") == 2 * 40 * 39);
    for (size_t i = 0; i < q.x.size(); i++) q.x[i] = (eqnn_real)0.25;
    CHECK(check_cloud(&q, 0.01, "one place") == 80 * 79);
}

/* Distances that are the radius to the last bit or next to it: a lattice, and its multiples. */
TEST(neighbours_at_the_border)
{
    static const double steps[] = { 1, 0.1, 0.7, 1.0 / 3, 1e-20, 123456.7 };
    static const double factors[] = { 1, 1.41421356237309505, 1.73205080756887729, 2, 3 };
    char what[200];
    cloud q = cloud_make();
    q.x.resize(375);
    for (double step : steps) for (double factor : factors) for (int way = 0; way < 2; way++) {
        double cell[9] = { 5 * step, 0, 0, 0, 5 * step, 0, 0, 0, 5 * step };
        for (size_t i = 0; i < 125; i++) {
            q.x[3 * i] = (eqnn_real)((double)(i % 5) * step);
            q.x[3 * i + 1] = (eqnn_real)((double)(i / 5 % 5) * step);
            q.x[3 * i + 2] = (eqnn_real)((double)(i / 25) * step);
        }
        q.o.cell = way ? cell : NULL;
        if (way && step < 1e-9) continue; /* below what reach allows for */
        WHAT("steps of %g, radius %g, way %d", step, factor * step, way);
        check_cloud(&q, factor * step, what);
        q.o.cell = NULL;
    }
}

/* Examples of mixed sizes, some of them empty, on top of each other. */
TEST(neighbours_of_examples)
{
    static const int sizes[] = { 3, 0, 40, 1, 0, 33, 2, 100, 0 };
    char what[200];
    cloud q = cloud_make();
    std::vector<int> example;
    std::vector<double> cell;
    for (int e = 0; e < 9; e++) {
        example.insert(example.end(), (size_t)sizes[e], e);
        for (int k = 0; k < 9; k++) cell.push_back(k % 4 ? 0.3 * (e % 3) : 1.5 + 0.4 * e);
    }
    cell[9] = cell[10] = cell[11] = 0; /* nobody lives there */
    cloud_fill(&q, example.size(), -2, 2);
    for (int way = 0; way < 8; way++) {
        q.o.example = example.data();
        q.o.examples = way & 1 ? 9 : 0;
        q.o.cell = way & 2 ? cell.data() : NULL;
        q.o.loops = way >> 2;
        WHAT("examples, way %d", way);
        CHECK(check_cloud(&q, 1.1, what) > (q.o.cell ? 1500 : 700));
    }
}

/* Cells of all shapes: wide, thin, skewed, left-handed, smaller than the radius; points outside. */
TEST(neighbours_in_cells)
{
    static const double cells[][9] = {
        { 6, 0, 0, 0, 6, 0, 0, 0, 6 },          { 3, 0, 0, 0, 30, 0, 0, 0, 3 },
        { 1, 0, 0, 0.3, 0.9, 0, 0.2, -0.1, 1 }, { 5, 0, 0, 4.5, 2, 0, -4, 1.5, 2.5 },
        { -4, 0, 0, 0, -3, 0.5, 0, -1, -5 },    { 0, 3, 0, 3, 0, 0, 0, 0, 3 },
        { 40, 0, 0, 0, 0.7, 0, 0, 0, 12 },      { 5, 0, 0, 4.9, 0.4, 0, 0, 0.2, 6 }
    };
    static const size_t sizes[] = { 0, 1, 2, 7, 60 };
    static const double radii[] = { 0.4, 1, 2.3 };
    char what[200];
    cloud q = cloud_make();
    int most = 0;
    for (int k = 0; k < 8; k++)
        EVERY(n, sizes) for (double radius : radii) {
            double wide = k % 2 ? 50 : 4;
            if (n > 7 && k == 2 && radius > 1) continue;
            cloud_fill(&q, n, -wide, wide);
            q.o.cell = cells[k];
            q.o.loops = n == 7;
            WHAT("cell %d, %zu points, radius %g", k, n, radius);
            int edges = check_cloud(&q, radius, what);
            if (edges > most) most = edges;
        }
    CHECK(most > 3000);
}

/* One atom and all its images: more than 64 edges between a node and itself are not paired. */
TEST(neighbours_of_one)
{
    static const double cell[9] = { 1, 0, 0, 0, 1, 0, 0, 0, 1 };
    cloud q = cloud_make();
    cloud_fill(&q, 1, 20, 30);
    q.o.cell = cell;
    CHECK(check_cloud(&q, 1.5, "18 images") == 18);
    CHECK(check_cloud(&q, 6.1, "many images") > 900);
    cloud_fill(&q, 2, -1, 1);
    q.o.loops = 1;
    CHECK(check_cloud(&q, 2.2, "images of two") > 100);
}

TEST(neighbours_refused)
{
    static const double flat[9] = { 1, 0, 0, 0, 1, 0, 1, 1, 0 };
    static const double small[9] = { 0.001, 0, 0, 0, 1, 0, 0, 0, 1 };
    static const double cell[9] = { 2, 0, 0, 0, 2, 0, 0, 0, 2 };
    cloud q = cloud_make();
    cloud_fill(&q, 50, -1, 1);
    int edges = check_cloud(&q, 1, "all");
    q.o.max_edges = edges;
    CHECK(check_cloud(&q, 1, "as many as allowed") == edges);
    q.o.max_edges = edges - 1;
    CHECK(check_cloud(&q, 1, "one too many") == -1);
    q.o.loops = 1;
    q.o.max_edges = edges + 49;
    CHECK(check_cloud(&q, 1, "too many with loops") == -1);
    q.o.max_edges = 20;
    CHECK(check_cloud(&q, 1, "fewer than loops") == -1);
    memset(&q.o, 0, sizeof q.o);
    q.o.cell = flat;
    CHECK(check_cloud(&q, 1, "flat") == -1);
    q.o.cell = small;
    CHECK(check_cloud(&q, 3, "small") == -1);
    for (int way = 0; way < 4; way++) {
        q.o.cell = way & 1 ? cell : NULL;
        q.x[101] = (eqnn_real)(way & 2 ? -HUGE_VAL : NAN);
        q.x[141] = (eqnn_real)NAN;
        CHECK(check_cloud(&q, 1, "not finite") == -1);
    }
    q.o.cell = cell;
    q.x[101] = (eqnn_real)1e20;
    q.x[141] = 0;
    CHECK(check_cloud(&q, 1, "far away") == -1);
    q.x[101] = 0;
    CHECK(check_cloud(&q, 1, "good again") > 0);
}

/* Steps like the last take no more memory, and wait twice, however many edges there are. */
TEST(neighbours_in_steps)
{
    static const double cell[9] = { 5, 0, 0, 1, 5, 0, 0, 0, 5 };
    cloud q = cloud_make();
    eqnn_graph_opts o = q.o;
    size_t used = 0;
    o.cell = cell;
    cloud_fill(&q, 150, -3, 3);
    for (int step = 0; step < 5; step++) {
        for (size_t i = 0; i < q.x.size(); i++)
            q.x[i] += (eqnn_real)(step == 1 ? 0 : 1e-3 * (double)(i % 7));
        eqnn_tensor *pos = cloud_points(&q, 1);
        const eqnn_graph *g = eqnn_radius_graph(pos, 2, &o);
        eqnn_tensor *r = eqnn_norm(eqnn_edge_vectors(pos, g));
        eqnn_tensor *sum = eqnn_sum(eqnn_scatter(r, g));
        CHECK(eqnn_value(sum) > 1000);
        eqnn_reset(q.c[1]);
        if (step == 2) used = emulate_device.used;
    }
    CHECK(used > 0 && emulate_device.used == used);
}

/* Whichever call of CUDA fails, there is a sentence and no graph. */
TEST(neighbours_fail)
{
    static const double cell[9] = { 3, 0, 0, 0, 3, 0, 0, 0, 3 };
    cloud q = cloud_make();
    eqnn_graph_opts o = q.o;
    int refused = 0, good = 0;
    o.cell = cell;
    for (int n = 1; n < 400 && !good; n++) {
        cloud_fill(&q, (size_t)n + 20, -3, 3); /* another number, so that no step is replayed */
        eqnn_tensor *pos = cloud_points(&q, 1);
        CHECK(eqnn_value(eqnn_sum(pos)) != 0);
        emulate_refuse = n;
        const eqnn_graph *g = eqnn_radius_graph(pos, 1, &o);
        good = emulate_refuse > 0;
        emulate_refuse = 0;
        (void)cudaGetLastError();
        eqnn_at(pos, 0, 0); /* what fails behind the last copy is told at the next */
        CHECK(good ? g && !eqnn_error(q.c[1]) : eqnn_error(q.c[1]) != NULL);
        refused += !good;
        eqnn_clear(q.c[1]);
        eqnn_reset(q.c[1]);
    }
    test_note("%d calls refused", refused);
    CHECK(good && refused > 20);
}

/* ---- errors ---- */

/* A few calls in a row; 1 when all went well. */
static int short_run(char *why, size_t size)
{
    const eqnn__kernels *k = eqnn__cuda();
    static eqnn_real v[3000];
    eqnn__device d;
    double sum = 0;
    int good;
    memset(&d, 0, sizeof d);
    d.op = &side_op;
    if (!k->begin(&d, 0, why, size)) return 0;
    eqnn_real *x = (eqnn_real *)k->reserve(&d, sizeof v);
    eqnn_real *y = (eqnn_real *)k->reserve(&d, sizeof v);
    double *out = (double *)k->reserve(&d, sizeof *out);
    good = x && y && out;
    if (!good) snprintf(why, size, "test: no memory");
    if (good) {
        k->copy(&d, x, v, sizeof v, EQNN__TO_DEVICE);
        k->fold_rows(&d, EQNN__SUM, 1500, 2, x, y);
        k->gemm(&d, 0, 0, 10, 10, 10, 1, x, 10, 3, x, 10, 7, 0, y, 10, 0, 12);
        k->solid(&d, 16, 10, x, y, NULL);
        k->total(&d, 1, 3000, x, out, 0);
        k->check(&d, 3000, y);
        k->copy(&d, &sum, out, sizeof sum, EQNN__TO_HOST);
        good = k->wait(&d, why, size);
    }
    if (y) k->release(&d, y, sizeof v);
    if (x) k->release(&d, x, sizeof v);
    if (out) k->release(&d, out, sizeof *out);
    k->end(&d);
    return good;
}

/* Whichever call of CUDA fails, there is a sentence, and nothing crashes. */
TEST(every_call_is_looked_at)
{
    char why[400];
    int n = 1, good = 0;
    CHECK(short_run(why, sizeof why));
    for (; n < 1000 && !good; n++) {
        why[0] = 0;
        emulate_refuse = n;
        good = short_run(why, sizeof why);
        if (emulate_refuse > 0) break; /* it was not reached: all calls have had their turn */
        emulate_refuse = 0;
        (void)cudaGetLastError();
        if (good) good = 0; /* refused while freeing, which nobody hears of */
        else CHECK(why[0] != 0);
    }
    emulate_refuse = 0;
    test_note("%d calls refused", n - 1);
    CHECK(n > 60 && n < 1000);
}

TEST(sentences)
{
    char why[400];
    eqnn__device d;
    memset(&d, 0, sizeof d);
    d.op = &side_op;
    CHECK(!eqnn__cuda()->begin(&d, 3, why, sizeof why) && !d.gpu);
    CHECK(strstr(why, "there is 1"));
    emulate_devices = 0;
    CHECK(!eqnn__cuda()->begin(&d, 0, why, sizeof why) && !d.gpu);
    CHECK(strstr(why, "no GPU"));
    emulate_devices = 1;
    CHECK(cudaGetLastError() == cudaSuccess); /* another context's cuBLAS might ask for it */
}

/* What a call hears that only waits may be of work begun before, and the sentence says so. */
TEST(blame)
{
    const char *past = "test: cuda:0: unknown error (of this or of work begun before)";
    char why[400];
    int back = 0, refused = 0;
    for (int n = 1, told = 1; told; n++) {
        open_sides();
        eqnn__device *d = side_device + 1;
        copies x = reals(100, -1, 1);
        side_table[1]->fill(d, 100, 2, (eqnn_real *)x.p[1]);
        emulate_refuse = n;
        told = !side_table[1]->wait(d, why, sizeof why) && emulate_refuse == 0;
        emulate_refuse = 0;
        refused += told;
        back += told && strstr(why, past);
        copies_free(&x);
        close_sides();
    }
    CHECK(refused > 2 && back == 1);
}

/* Products round what they multiply only where that is asked for. */
TEST(rounding_is_asked_for)
{
    char why[400];
    for (int tf32 = 0; tf32 < 2; tf32++) {
        eqnn__device d;
        memset(&d, 0, sizeof d);
        d.op = &side_op;
        d.tf32 = tf32;
        if (!CHECK(eqnn__cuda()->begin(&d, 0, why, sizeof why))) return;
        CHECK((eqnn__gpu_of(&d)->blas->math == CUBLAS_TF32_TENSOR_OP_MATH) == (tf32 == 1));
        eqnn__cuda()->end(&d);
    }
}

/* Memory that runs out is told with its size; the device goes on afterwards. */
TEST(memory_runs_out)
{
    char why[400];
    open_sides();
    eqnn__device *d = side_device + 1;
    const eqnn__kernels *k = side_table[1];
    copies x = reals(1000, -1, 1), y = reals(1000, 0, 0);
    emulate_device.limit = emulate_device.used + 1000;
    CHECK(!k->reserve(d, 5000));
    CHECK(k->wait(d, why, sizeof why));
    side_op = "sum";
    k->fold_rows(d, EQNN__SUM, 100000, 10, (eqnn_real *)x.p[1], (eqnn_real *)y.p[1]);
    CHECK(!k->wait(d, why, sizeof why));
    CHECK(strstr(why, "sum: cuda:0: out of memory") && strstr(why, "bytes"));
    side_op = "test";
    emulate_device.limit = EMULATE_REGION;
    CHECK(k->wait(d, why, sizeof why));
    k->fold_rows(d, EQNN__SUM, 100, 10, (eqnn_real *)x.p[1], (eqnn_real *)y.p[1]);
    CHECK(eqnn__scratch(d, EQNN__SCRATCH_FOLD, 1 << 20) && k->wait(d, why, sizeof why));
    size_t had = eqnn__gpu_of(d)->scratch[EQNN__SCRATCH_FOLD].size, more = had + had / 4;
    emulate_device.limit = emulate_device.used - had + more + 65536; /* half as much again is not */
    CHECK(eqnn__scratch(d, EQNN__SCRATCH_FOLD, more) && k->wait(d, why, sizeof why));
    CHECK(eqnn__gpu_of(d)->scratch[EQNN__SCRATCH_FOLD].size < more + 65536);
    emulate_device.limit = EMULATE_REGION;
    copies_free(&x), copies_free(&y);
    close_sides();
}

/* ---- steps that repeat ---- */

/* What a step of training asks for; gently: waits after each entry, so that nothing repeats. */
enum { SMALL_DATA = 4000, SMALL_WEIGHTS = 300 };
typedef struct small {
    eqnn__device d;
    eqnn_real *x, *y, *w, *g, *s1, *s2;
    double *squares;
    int step, gently;
    const char *op;
} small;

static eqnn_real *small_numbers(small *s, size_t n)
{
    const eqnn__kernels *k = eqnn__cuda();
    eqnn_real *x = (eqnn_real *)k->reserve(&s->d, n * sizeof *x);
    k->fill(&s->d, n, 0.01, x);
    return x;
}

static void small_open(small *s, int gently)
{
    char why[400];
    memset(s, 0, sizeof *s);
    s->d.op = &s->op;
    s->gently = gently;
    CHECK(eqnn__cuda()->begin(&s->d, 0, why, sizeof why));
    s->x = small_numbers(s, SMALL_DATA), s->y = small_numbers(s, SMALL_DATA);
    s->w = small_numbers(s, SMALL_WEIGHTS), s->g = small_numbers(s, SMALL_WEIGHTS);
    s->s1 = small_numbers(s, SMALL_WEIGHTS), s->s2 = small_numbers(s, SMALL_WEIGHTS);
    s->squares = (double *)eqnn__cuda()->reserve(&s->d, sizeof *s->squares);
    eqnn__cuda()->total(&s->d, 1, SMALL_DATA, s->x, s->squares, 0); /* has its working memory now */
    CHECK(eqnn__cuda()->wait(&s->d, why, sizeof why));
}

static void small_close(small *s)
{
    eqnn_real *x[6] = {s->x, s->y, s->w, s->g, s->s1, s->s2};
    for (int i = 0; i < 6; i++) eqnn__cuda()->release(&s->d, x[i], 0);
    eqnn__cuda()->release(&s->d, s->squares, 0);
    eqnn__cuda()->end(&s->d);
}

/* The next entry's operation is this. */
static void small_next(small *s, const char *op)
{
    char why[400];
    s->op = op;
    if (s->gently) CHECK(eqnn__cuda()->wait(&s->d, why, sizeof why));
}

static void small_layers(small *s, size_t rows)
{
    const eqnn__kernels *k = eqnn__cuda();
    eqnn__in a = {s->y, 0, 1}, b = {s->x, 0, 1}, none = {NULL, 0, 0};
    for (int layer = 0; layer < 25; layer++) {
        small_next(s, "matmul");
        k->gemm(&s->d, 0, 0, rows, 10, 10, 1, s->x, 10, 0, s->w + 10 * (layer % 5), 10, 0, 0, s->y,
                10, 0, 1);
        small_next(s, "tanh");
        k->map(&s->d, EQNN_TANH, 0, 1, rows * 10, a, none, none, 0, 0, s->y);
        small_next(s, "add");
        k->map(&s->d, EQNN__AXPBY, 0, 1, rows * 10, a, b, none, 0.5, 0.5, s->x);
    }
}

/* One step with a batch of so many rows; reads: looks at numbers in its middle. */
static void small_step(small *s, size_t rows, int reads)
{
    const eqnn__kernels *k = eqnn__cuda();
    eqnn__update u = some_update(EQNN__ADAM);
    eqnn_real batch[SMALL_DATA], back;
    uint64_t stream = eqnn__stream(77, (uint64_t)++s->step);
    for (size_t i = 0; i < 10 * rows; i++) batch[i] = (eqnn_real)eqnn__uniform(stream, i);
    small_next(s, "from");
    k->copy(&s->d, s->x, batch, 10 * rows * sizeof *batch, EQNN__TO_DEVICE);
    small_next(s, "dropout");
    k->random(&s->d, EQNN__NORMAL, 5, (uint64_t)s->step, 10 * rows, 0, s->y);
    small_layers(s, rows);
    small_next(s, "gradient");
    k->fold_rows(&s->d, EQNN__SUM, rows / 30, SMALL_WEIGHTS, s->x, s->g);
    if (reads) k->copy(&s->d, &back, s->g, sizeof back, EQNN__TO_HOST);
    small_next(s, "norm");
    k->total(&s->d, 1, SMALL_WEIGHTS, s->g, s->squares, 0);
    small_next(s, "adam");
    s->d.step = s->step;
    k->check(&s->d, SMALL_WEIGHTS, s->g);
    small_next(s, "adam");
    u.correct1 = 1 - pow(0.9, s->step), u.correct2 = 1 - pow(0.99, s->step);
    u.squares = s->squares;
    k->update(&s->d, &u, SMALL_WEIGHTS, s->w, s->g, s->s1, s->s2, NULL);
    s->op = "reset";
    k->send(&s->d);
}

static int small_same(small *a, small *b)
{
    eqnn_real v[2][SMALL_WEIGHTS];
    eqnn__cuda()->copy(&a->d, v[0], a->w, sizeof v[0], EQNN__TO_HOST);
    eqnn__cuda()->copy(&b->d, v[1], b->w, sizeof v[1], EQNN__TO_HOST);
    return !memcmp(v[0], v[1], sizeof v[0]) && v[0][7] < 1 && v[0][7] > -1 && v[0][0] < v[0][7] + 1;
}

/* Kernels started one by one, graphs, and what was changed in these, since the last call. */
typedef struct counts { long launches, replays, changes; } counts;
static counts count(void)
{
    counts c = {emulate_launches, emulate_replays, emulate_changes};
    emulate_launches = emulate_replays = emulate_changes = 0;
    return c;
}

/* Every step's bits are those of a step that is never replayed. */
TEST(steps_are_replayed)
{
    static const int rows[14] = {60, 60, 60, 60, 60, 90, 60, 60, 60, 90, 90, 30, 60, 60};
    static const int reads[14] = {0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 0, 0, 0, 1};
    small a, b;
    small_open(&a, 0);
    small_open(&b, 1);
    for (int i = 0; i < 14; i++) {
        (void)count();
        small_step(&a, (size_t)rows[i], reads[i]);
        counts c = count();
        if (i == 0 || i == 5 || i == 11) CHECK(c.launches > 50 && c.replays == 0);
        if (i == 1) CHECK(c.launches == 0 && c.replays == 2); /* two lists: a step is 82 long */
        if ((i > 1 && i < 5) || i == 6 || i == 12) {
            CHECK(c.launches == 0 && c.replays == 2);
            CHECK(c.changes >= 3 && c.changes <= 5); /* the batch, noise, check, corrections */
        }
        if (i == 7) CHECK(c.launches > 0 && c.replays == 1); /* the second is cut in two */
        if (i == 8 || i == 13) CHECK(c.launches == 0 && c.replays == 3);
        small_step(&b, (size_t)rows[i], 0);
        CHECK(small_same(&a, &b));
    }
    small_close(&a), small_close(&b);
    CHECK(emulate_device.used == 0);
}

/* Copies that are most of a piece of the ring, a few of them and then some more than it has. */
static void small_ring(small *s)
{
    static eqnn_real v[EQNN__STAGE / sizeof(eqnn_real)];
    const size_t most = EQNN__STAGE / sizeof *v;
    size_t n = 16000 / sizeof *v;
    s->step++;
    for (size_t i = 0; i < most; i++) v[i] = (eqnn_real)(1e-6 * (double)(i + (size_t)s->step));
    for (size_t at = 0; at + n <= most; at += n)
        eqnn__cuda()->copy(&s->d, s->x, v + at, n * sizeof *v, EQNN__TO_DEVICE);
    eqnn__cuda()->copy(&s->d, s->w, s->x, SMALL_WEIGHTS * sizeof *v, EQNN__WITHIN);
    small_next(s, "ring");
}

/* Steps of many sizes take each other's places; copies that nobody waits for use the ring up. */
TEST(steps_are_forgotten)
{
    small a, b;
    small_open(&a, 0);
    small_open(&b, 1);
    for (int i = 0; i < 80; i++) {
        size_t rows = (size_t)(30 + (i < 3 ? 0 : i));
        small_step(&a, rows, 0);
        small_step(&b, rows, 0);
        if (i % 11 == 0) CHECK(small_same(&a, &b));
    }
    (void)count();
    small_step(&a, 30, 0);
    CHECK(count().replays == 0);
    small_step(&b, 30, 0);
    for (int i = 0; i < 20; i++) small_ring(&a), small_ring(&b);
    CHECK(small_same(&a, &b));
    small_close(&a), small_close(&b);
}

/* Does step number `before` + 1 hear of it when its n-th call is refused, as *refuse says? -1: it
   makes fewer. */
static int small_refused(small *a, int before, int *refuse, int n, char *why, size_t size)
{
    small_open(a, 0);
    for (int i = 0; i < before; i++) small_step(a, 60, 0);
    CHECK(eqnn__cuda()->wait(&a->d, why, size));
    *refuse = n;
    small_step(a, 60, 0);
    int reached = *refuse == 0;
    *refuse = 0;
    int good = eqnn__cuda()->wait(&a->d, why, size);
    CHECK(good || reached);
    return reached ? !good : -1;
}

/* A failure has the name of the operation that asked, and later steps go well. */
TEST(steps_that_fail)
{
    char why[400];
    small a;
    for (int before = 0; before < 4; before += 3)
        for (int n = 2, heard = 1; heard > 0; n += before ? 1 : 9) { /* 1: choosing the device */
            heard = small_refused(&a, before, &emulate_refuse, n, why, sizeof why);
            CHECK(heard && (n > 2 || heard > 0));
            if (n == 2) CHECK(!strncmp(why, "from: cuda:0: ", 14));
            if (before == 0 && n == 11) CHECK(!strncmp(why, "tanh: cuda:0: ", 14));
            if (before == 3 && heard < 0) CHECK(n == 5); /* 2 devices, 2 graphs */
            (void)count();
            small_step(&a, 60, 0);
            small_step(&a, 60, 0);
            CHECK(eqnn__cuda()->wait(&a.d, why, sizeof why) && count().replays > 1);
            small_close(&a);
        }
}

static eqnn_tensor *weighted(eqnn_ctx *c, double x)
{
    double v[5 * 30];
    for (int i = 0; i < 5 * 30; i++) v[i] = sin(x * i);
    eqnn_tensor *y = eqnn_layer_norm(eqnn_from_double(c, 5, 30, v), "norm", NULL);
    return eqnn_sum(eqnn_square(eqnn_mlp(y, "mlp", "20,3", NULL)));
}

/* A first step that fails late, whichever call it is: what it should have made lasting is made
   again, and its gradients are gone. */
TEST(what_lasts_arrives)
{
    eqnn_opts o;
    memset(&o, 0, sizeof o);
    o.device = "cuda:0";
    eqnn_ctx *c = eqnn_make(&o);
    double good = eqnn_value(weighted(c, 1)), slope[2];
    int failed = 0;
    eqnn_free(c);
    for (int n = 1, reached = 1; reached && n < 400; n += 1 + n / 40) {
        emulate_refuse = 0;
        c = eqnn_make(&o);
        emulate_refuse = n;
        eqnn_value(weighted(c, 1));
        eqnn_backward(weighted(c, 1));
        eqnn_value(weighted(c, 1));
        reached = emulate_refuse == 0;
        emulate_refuse = 0;
        failed += eqnn_error(c) != NULL;
        eqnn_clear(c);
        eqnn_reset(c);
        CHECK_NEAR(eqnn_value(weighted(c, 1)), good, 1e-5 * fabs(good));
        CHECK_OK(c);
        eqnn_free(c);
    }
    CHECK(failed > 20);
    for (int n = 1, reached = 1; reached && n < 100; n++) {
        c = eqnn_make(&o);
        eqnn_backward(weighted(c, 0.5));
        eqnn_zero_gradients(c);
        eqnn_value(weighted(c, 0.5));
        eqnn_reset(c);
        emulate_refuse = n;
        eqnn_backward(weighted(c, 1));
        eqnn_value(weighted(c, 1));
        reached = emulate_refuse == 0;
        emulate_refuse = 0;
        int told = eqnn_error(c) != NULL;
        eqnn_clear(c);
        eqnn_reset(c);
        for (int k = 0; k < 2 && told; k++) {
            eqnn_backward(weighted(c, 2));
            slope[k] = eqnn_value(eqnn_sum(eqnn_abs(eqnn_gradient(eqnn_parameter_at(c, 0)))));
            eqnn_zero_gradients(c);
        }
        if (told) CHECK(slope[1] > 0 && fabs(slope[0] - slope[1]) <= 1e-6 * slope[1]);
        eqnn_free(c);
    }
}

/* A list of which CUDA makes no graph, or whose graph it does not change, runs without one. */
static int small_plain(int before, int stride)
{
    char why[400];
    int plain = 0;
    small a, b;
    for (int n = 1, heard = 0; heard >= 0; n += stride) {
        heard = small_refused(&a, before, &emulate_refuse_graph, n, why, sizeof why);
        CHECK(heard < 1);
        if (heard == 0) {
            small_open(&b, 1);
            for (int i = 0; i <= before; i++) small_step(&b, 60, 0);
            CHECK(small_same(&a, &b));
            (void)count();
            small_step(&a, 60, 0);
            counts c = count();
            CHECK(c.launches > 0 && c.replays == 1); /* the other list has its graph */
            small_step(&b, 60, 0);
            CHECK(small_same(&a, &b));
            small_close(&b);
            plain++;
        }
        small_close(&a);
    }
    return plain;
}

TEST(steps_without_graphs)
{
    CHECK(small_plain(1, 11) > 8);
    CHECK(small_plain(3, 1) == 4); /* changes of a step */
}

/* ---- plans ---- */

typedef struct twice { const int *v; int n; } twice;
static int twice_made;

static void twice_make(eqnn__device *d, const int *plan, twice *t)
{
    t->v = eqnn__gpu_upload(d, plan, 1);
    t->n = 2 * *plan;
    twice_made++;
}

TEST(plans_are_copied_once)
{
    static int plans[500];
    int back = 0;
    open_sides();
    eqnn__device *d = side_device + 1;
    twice_made = 0;
    for (int round = 0; round < 2; round++)
        for (int i = 0; i < 500; i++) {
            plans[i] = i;
            const twice *t = eqnn__gpu_plan(d, plans + i, twice_make);
            CHECK(t && t->n == 2 * i);
            side_table[1]->copy(d, &back, t->v, sizeof back, EQNN__TO_HOST);
            CHECK(back == i);
        }
    CHECK(twice_made == 500);
    eqnn__device worker = *d; /* what a worker made is forgotten with it */
    worker.op = &side_op;
    int mine = 7;
    CHECK(eqnn__gpu_plan(&worker, &mine, twice_make) && twice_made == 501);
    side_table[1]->end(&worker);
    CHECK(!worker.gpu);
    mine = 8;
    const twice *t = eqnn__gpu_plan(d, &mine, twice_make);
    CHECK(t && t->n == 16 && twice_made == 502);
    close_sides();
}

/* ---- the emulator itself finds what it is for ---- */

static __global__ void bad_barrier(int *x)
{
    if (threadIdx.x < 40) __syncthreads();
    x[threadIdx.x] = 1;
}

static __global__ void bad_lines(int *x)
{
    if (threadIdx.x % 2) __syncthreads();
    else __syncthreads(), x[0] = 1;
    __syncthreads();
}

static __global__ void bad_shuffle(int *x)
{
    int v = 0;
    if (threadIdx.x < 16) v = __shfl_xor_sync(EQNN__ALL, 1, 1);
    x[threadIdx.x] = v;
}

static __global__ void bad_host(int *x, const int *host)
{
    x[threadIdx.x] = host[0];
}

static __global__ void bad_shared(int *x)
{
    EQNN_SHARED(int, shared);
    shared[threadIdx.x + 4] = 1;
    x[threadIdx.x] = 1;
}

static __global__ void bad_write(int *x)
{
    x[threadIdx.x] = 1;
}

static __global__ void bad_pack(eqnn_real *x)
{
    *(eqnn__pack *)(void *)(x + 1) = eqnn__pack();
}

static __global__ void unwritten(float *x)
{
    EQNN_SHARED(float, shared);
    if (threadIdx.x > 0) shared[threadIdx.x] = 1;
    __syncthreads();
    x[threadIdx.x] = shared[threadIdx.x ^ 1u];
}

static __global__ void missing_barrier(float *x)
{
    EQNN_SHARED(float, shared);
    shared[threadIdx.x] = (float)threadIdx.x;
    x[threadIdx.x] = shared[(threadIdx.x + 1) % 64];
}

static __global__ void sums(int *x)
{
    EQNN_SHARED(int, shared);
    int v = (int)(threadIdx.x + blockIdx.x);
    for (int k = 16; k > 0; k /= 2) v += __shfl_down_sync(EQNN__ALL, v, (unsigned)k);
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = v;
    __syncthreads();
    if (threadIdx.x == 0) x[blockIdx.x] = shared[0] + shared[1];
    __syncwarp();
}

/* Runs one of these in a process of its own: 1 when it ends with that sentence. */
static int ends_with(int which, const char *sentence)
{
    char text[600] = "";
    int ends[2], status = 0, *x, host;
    cudaStream_t s;
    if (pipe(ends)) return 0;
    pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], 2);
        cudaStreamCreateWithFlags(&s, 0);
        cudaMalloc(&x, 200);
        int *own = (int *)emulate_alloc(NULL, NULL, 0, 64);
        if (which == 0) EQNN_LAUNCH(bad_barrier, 2, 64, 0, s, x);
        if (which == 1) EQNN_LAUNCH(bad_lines, 2, 64, 0, s, x);
        if (which == 2) EQNN_LAUNCH(bad_shuffle, 2, 32, 0, s, x);
        if (which == 3) EQNN_LAUNCH(bad_host, 1, 32, 0, s, x, (const int *)own);
        if (which == 4) EQNN_LAUNCH(bad_shared, 1, 32, 32 * sizeof(int), s, x);
        if (which == 5) EQNN_LAUNCH(bad_write, 1, 64, 0, s, x);
        if (which == 9) EQNN_LAUNCH(bad_pack, 1, 32, 0, s, (eqnn_real *)(void *)x);
        if (which == 6) x[0] = 1;
        if (which == 7) cudaMemcpyAsync(x, x, 4, cudaMemcpyDeviceToHost, s);
        if (which == 8) cudaMemcpyAsync(&host, &host, 4, cudaMemcpyDeviceToHost, s);
        cudaStreamSynchronize(s);
        _exit(0);
    }
    close(ends[1]);
    size_t n = 0;
    for (ssize_t m = 1; m > 0 && n < sizeof text - 1; n += m > 0 ? (size_t)m : 0)
        m = read(ends[0], text + n, sizeof text - 1 - n);
    close(ends[0]);
    waitpid(child, &status, 0);
    int good = n > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 99 && strstr(text, sentence);
    if (!good) printf("    wanted \"%s\", got \"%s\"\n", sentence, text);
    return good;
}

/* A context tells its stream, and its workers' is the same. */
TEST(streams)
{
    eqnn_opts o;
    memset(&o, 0, sizeof o);
    o.device = "cuda:0";
    eqnn_ctx *c = eqnn_make(&o);
    CHECK_OK(c);
    CHECK(eqnn_stream(c) != NULL && eqnn_stream(c) == eqnn__gpu_of(&c->device)->stream);
    CHECK(eqnn_full(c, 5, 5, 2) && eqnn__gpu_of(&c->device)->list.count > 0);
    CHECK(eqnn_stream(c) && eqnn__gpu_of(&c->device)->list.count == 0);
    o.weights_of = c;
    eqnn_ctx *worker = eqnn_make(&o);
    CHECK(eqnn_stream(worker) == eqnn_stream(c));
    eqnn_free(worker);
    eqnn_free(c);
    o.device = "cpu";
    o.weights_of = NULL;
    c = eqnn_make(&o);
    CHECK(eqnn_stream(c) == NULL);
    eqnn_free(c);
}

/* A number after some steps on a device: plans, a graph of edges, products, the optimizer. */
static double device_step(eqnn_ctx *c, eqnn_adam *opt, int step)
{
    eqnn_tensor *x = eqnn_normal(c, "x", 40, 3);
    const eqnn_graph *g = eqnn_radius_graph(x, 1.5, NULL);
    eqnn_tensor *h = eqnn_spherical_harmonics(eqnn_edge_vectors(x, g), 4, NULL);
    h = eqnn_tanh(eqnn_linear(eqnn_as(eqnn_scatter(h, g), NULL), "out", 5, NULL));
    eqnn_tensor *loss = eqnn_mean(eqnn_mul(h, h));
    double v = step % 3 ? 0 : eqnn_value(loss); /* steps that wait, and steps that do not */
    eqnn_backward(loss);
    eqnn_adam_step(opt);
    eqnn_reset(c);
    return v;
}

/* Contexts on two GPUs, and a worker on one of them, in turn in one thread: the emulator stops a
   program that mixes devices. */
TEST(two_devices)
{
    eqnn_ctx *c[3];
    eqnn_adam *opt[3];
    eqnn_opts o = test_opts();
    double v[3];
    emulate_devices = 2;
    for (int i = 0; i < 3; i++) {
        o.device = i == 0 ? "cuda:0" : "cuda:1";
        o.weights_of = NULL;
        c[i] = eqnn_make(&o);
        CHECK_OK(c[i]);
        opt[i] = eqnn_adam_make(c[i], NULL);
    }
    for (int step = 0; step < 7; step++) {
        for (int i = 0; i < 3; i++) v[i] = device_step(c[i], opt[i], step);
        CHECK((v[0] > 0) == (step % 3 == 0) && v[0] == v[1] && v[0] == v[2]);
    }
    o.weights_of = c[2];
    eqnn_ctx *worker = eqnn_make(&o);
    eqnn_tensor *y = eqnn_linear(eqnn_full(worker, 4, 25, 1), "out", 5, NULL);
    CHECK(eqnn_value(eqnn_sum(eqnn_full(c[0], 3, 3, 1))) == 9); /* the other device is chosen now */
    CHECK(eqnn_value(eqnn_sum(y)) != 0 && !eqnn_error(worker));
    eqnn_free(worker);
    for (int i = 0; i < 3; i++) {
        CHECK_OK(c[i]);
        eqnn_free(c[i]);
    }
    emulate_devices = 1;
    CHECK(emulate_device.used == 0);
}

TEST(emulator_finds)
{
    CHECK(ends_with(0, "bad_barrier: divergent barrier"));
    CHECK(ends_with(1, "bad_lines: divergent barrier"));
    CHECK(ends_with(2, "bad_shuffle: divergent barrier"));
    CHECK(ends_with(3, "bad_host: block 0, thread 0 touches memory of the host"));
    CHECK(ends_with(4, "bad_shared: block 0, thread 28 touches memory behind what is shared"));
    CHECK(ends_with(5, "bad_write: byte 200 of 200 was written"));
    CHECK(ends_with(6, "the host touches device memory"));
    CHECK(ends_with(7, "memory of the wrong side"));
    CHECK(ends_with(8, "memory of the wrong side"));
#if defined(EMULATE_ALIGNED) && !defined(__clang__) /* clang does not look at copies of structs */
    CHECK(ends_with(9, "bad_pack: block 0, thread 0 touches what is not aligned"));
#endif
}

TEST(emulator_runs)
{
    float *x, y[2][64];
    int *z, w[300];
    cudaStream_t s;
    cudaStreamCreateWithFlags(&s, 0);
    cudaMalloc(&x, sizeof y[0]);
    cudaMalloc(&z, sizeof w);
    EQNN_LAUNCH(unwritten, 1, 64, 64 * sizeof(float), s, x);
    cudaMemcpyAsync(y[0], x, sizeof y[0], cudaMemcpyDeviceToHost, s);
    cudaStreamSynchronize(s);
    CHECK(isnan(y[0][1]) && y[0][0] == 1 && y[0][63] == 1);
    for (emulate_backwards = 0; emulate_backwards < 2; emulate_backwards++) {
        EQNN_LAUNCH(missing_barrier, 1, 64, 64 * sizeof(float), s, x);
        cudaMemcpyAsync(y[emulate_backwards], x, sizeof y[0], cudaMemcpyDeviceToHost, s);
        cudaStreamSynchronize(s);
        EQNN_LAUNCH(sums, 300, 64, 64 * sizeof(int), s, z);
        cudaMemcpyAsync(w, z, sizeof w, cudaMemcpyDeviceToHost, s);
        cudaStreamSynchronize(s);
        for (int b = 0; b < 300; b++) CHECK(w[b] == 63 * 32 + 64 * b);
    }
    emulate_backwards = 0;
    CHECK(memcmp(y[0], y[1], sizeof y[0]));
    cudaFree(x);
    cudaFree(z);
    cudaStreamDestroy(s);
}

TEST_MAIN
