/* The table of eqnn_cuda.cuh against the processor's, entry by entry, on small and odd shapes. The
   kernels run through tests/cuda_emulate.h, each twice, with threads in opposite orders: a missing
   barrier shows as other bits. */
#include "cuda_emulate.h"
#include "../eqnn_cuda.cuh"
#include "test.h"
#include <sys/wait.h>

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
                    copies_free(&x), copies_free(&y), copies_free(&z);
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
    static const size_t segments[] = {1, 2, 37, 500, 70000};
    static const size_t cols_of[] = {1, 4, 5, 33, 64};
    char what[200];
    open_sides();
    EVERY(n, segments) EVERY(cols, cols_of) for (int ordered = 0; ordered < 2; ordered++) {
        size_t items = n > 1000 ? n + n / 2 : 4 * n + 300;
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
    size_t sizes[] = {0, 1, 100, 70000, 1500000};
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
                                     {0, 3, 4, 1}, {3, 4, 5, 0}, {9, 300, 2100, 1}};
    open_sides();
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int t = 0; t < 4; t++)
            for (int how = 0; how < 5; how++)
                check_gemm(shapes[i], t & 1, t >> 1, how % 2 ? 0.5 : 0, how);
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
    copies s2 = reals(n + skip, 0, 1), norm = copies_make(&squares, sizeof squares);
    eqnn__update mine = u;
    WHAT("update %d of %zu, moments %d, squares %g", u.kind, n, moments, squares);
    for (side = 0; side < SIDES; side++) {
        emulate_backwards = side == 2;
        mine.squares = squares >= 0 ? (const double *)norm.p[side] : NULL;
        side_table[side]->update(side_device + side, &mine, n, p(w) + skip,
                                 u.kind == EQNN__EMA ? NULL : p(g) + skip,
                                 moments > 0 ? p(s1) + skip : NULL,
                                 moments > 1 ? p(s2) + skip : NULL);
        wait_sides();
    }
    side = emulate_backwards = 0;
    CHECK_REALS(w, near_bits(1e-13, 1e-5));
    CHECK_REALS(s1, near_bits(1e-13, 1e-5));
    CHECK_REALS(s2, near_bits(1e-13, 1e-5));
    CHECK_REALS(g, 0);
    copies_free(&w), copies_free(&g), copies_free(&s1), copies_free(&s2), copies_free(&norm);
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

TEST(updates)
{
    static const size_t shapes[] = {0, 1, 3, 4, 130, 2047};
    open_sides();
    EVERY(n, shapes) for (int way = 0; way < 4; way++) {
        eqnn__update u = some_update(EQNN__ADAM);
        double squares = way == 0 ? -1 : way == 1 ? 100 : way == 2 ? 0 : 1e-3;
        size_t skip = way == 3 ? 1 : 0;
        check_update(u, n, 2, squares, skip);
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
    k->update(d, &u, 100, (eqnn_real *)w.p[1], (eqnn_real *)g.p[1], NULL, NULL);
    k->update(d, &u, 100, (eqnn_real *)w.p[1], (eqnn_real *)h.p[1], NULL, NULL);
    k->copy(d, after, w.p[1], sizeof after, EQNN__TO_HOST);
    CHECK(!memcmp(before, after, sizeof after));
    CHECK(k->wait(d, why, sizeof why) && d->flag == 1);
    k->update(d, &u, 100, (eqnn_real *)w.p[1], (eqnn_real *)h.p[1], NULL, NULL);
    k->copy(d, after, w.p[1], sizeof after, EQNN__TO_HOST);
    CHECK(memcmp(before, after, sizeof after));
    copies_free(&w), copies_free(&g), copies_free(&h);
    close_sides();
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
    (void)cudaGetLastError();
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
    CHECK(k->wait(d, why, sizeof why));
    copies_free(&x), copies_free(&y);
    close_sides();
}

/* ---- plans ---- */

typedef struct twice { const int *v; int n; } twice;
static int twice_made;

static void twice_make(eqnn__device *d, const void *plan, void *made)
{
    twice *t = (twice *)made;
    t->v = (const int *)eqnn__gpu_upload(d, plan, sizeof(int));
    t->n = 2 * *(const int *)plan;
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
            const twice *t = (const twice *)eqnn__gpu_plan(d, plans + i, sizeof *t, twice_make);
            CHECK(t && t->n == 2 * i);
            side_table[1]->copy(d, &back, t->v, sizeof back, EQNN__TO_HOST);
            CHECK(back == i);
        }
    CHECK(twice_made == 500);
    eqnn__device worker = *d; /* what a worker made is forgotten with it */
    worker.op = &side_op;
    int mine = 7;
    CHECK(eqnn__gpu_plan(&worker, &mine, sizeof(twice), twice_make) && twice_made == 501);
    side_table[1]->end(&worker);
    CHECK(!worker.gpu);
    mine = 8;
    const twice *t = (const twice *)eqnn__gpu_plan(d, &mine, sizeof *t, twice_make);
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
