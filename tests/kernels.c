/* kernels.c - the table of kernels (section 4 of eqnn.h), on every number of lanes, against libm
   and the loops one would write; and what else of the implementation is not seen from outside */
#define EQNN_STATIC
#define EQNN_IMPLEMENTATION
#include "test.h"
#include "forms.h"

#define N 6000
static eqnn_real A[N], B[N], C[N], Y[N], Z[N];
static double scratch[1 << 19];

static const eqnn__kernels *const cpu = &eqnn__cpu;

static eqnn__device device(const eqnn__loops *k, int threads)
{
    eqnn__device d;
    memset(&d, 0, sizeof d);
    d.loops = k;
    d.threads = threads;
    d.scratch = scratch;
    d.scratch_size = sizeof scratch;
    return d;
}

static eqnn__in in(const eqnn_real *p, size_t rs, size_t cs)
{
    eqnn__in i;
    i.p = p;
    i.rs = rs;
    i.cs = cs;
    return i;
}

static void fill(eqnn_real *x, size_t n, uint64_t key)
{
    uint64_t stream = eqnn__stream(key, 0);
    for (size_t i = 0; i < n; i++) x[i] = (eqnn_real)eqnn__normal(stream, i);
}

/* Runs the body with k = the loops of 16, 8, 4 lanes (or what there is). */
#define EACH_LANES(k)                                               \
    for (int lanes = 16; lanes >= 4; lanes /= 2)                    \
        for (const eqnn__loops *k = eqnn__loops_pick(lanes); k; k = NULL)

static eqnn_real at(const eqnn__loops *k, int op, int order, double p, double x)
{
    eqnn__device d = device(k, 1);
    eqnn_real in1 = (eqnn_real)x, y;
    cpu->map(&d, op, order, 1, 1, in(&in1, 1, 1), in(NULL, 0, 0), in(NULL, 0, 0), p, 0, &y);
    return y;
}

/* --- functions of one number --- */

static double f_exp(double x) { return exp(x); }
static double f_sigmoid(double x) { return 1 / (1 + exp(-x)); }
static double f_silu(double x) { return x / (1 + exp(-x)); }
static double f_softplus(double x) { return log1p(exp(x)); }
static double f_ssp(double x) { return log1p(expm1(x) / 2); }
static double f_gelu(double x) { return 0.5 * x * erfc(-x / sqrt(2.)); }
static double f_dsilu(double x) { return f_sigmoid(x) * (1 + x * f_sigmoid(-x)); }
static double f_dtanh(double x) { return 1 / (cosh(x) * cosh(x)); }
static double f_d2tanh(double x) { return -2 * tanh(x) / (cosh(x) * cosh(x)); }
static double f_d2sigmoid(double x) { return f_sigmoid(x) * f_sigmoid(-x) * -tanh(x / 2); }

/* Largest relative error between low and high; values below 1e-30 count as 0. */
static double worst(const eqnn__loops *k, int op, int order, double (*f)(double), double low,
                    double high)
{
    eqnn__device d = device(k, 1);
    double error = 0;
    for (int i = 0; i < N; i++) A[i] = (eqnn_real)(low + (high - low) * i / (N - 1));
    cpu->map(&d, op, order, 1, N, in(A, N, 1), in(NULL, 0, 0), in(NULL, 0, 0), 0, 0, Y);
    for (int i = 0; i < N; i++)
        error = fmax(error,
                     fabs((double)Y[i] - f((double)A[i])) / fmax(1e-30, fabs(f((double)A[i]))));
    return error;
}

TEST(functions_against_libm)
{
    EACH_LANES(k) {
        double tol = test_eps(1e-15, 5e-7), tails = test_eps(2e-13, 1e-5);
        CHECK_NEAR(worst(k, EQNN_EXP, 0, f_exp, -60, 80), 0, tol);
        CHECK_NEAR(worst(k, EQNN_LOG, 0, log, 1e-6, 3), 0, tol);
        CHECK_NEAR(worst(k, EQNN_LOG, 0, log, 3, 1e8), 0, tol);
        CHECK_NEAR(worst(k, EQNN_TANH, 0, tanh, -12, 12), 0, tol);
        CHECK_NEAR(worst(k, EQNN_TANH, 1, f_dtanh, -12, 12), 0, 2 * tol);
        CHECK_NEAR(worst(k, EQNN_TANH, 2, f_d2tanh, -12, 12), 0, 4 * tol);
        CHECK_NEAR(worst(k, EQNN_SIGMOID, 0, f_sigmoid, -30, 30), 0, tol);
        CHECK_NEAR(worst(k, EQNN_SIGMOID, 2, f_d2sigmoid, -30, 30), 0, 4 * tol);
        CHECK_NEAR(worst(k, EQNN_SILU, 0, f_silu, -30, 30), 0, tol);
        CHECK_NEAR(worst(k, EQNN_SILU, 1, f_dsilu, -1, 30), 0, 2 * tol);
        CHECK_NEAR(worst(k, EQNN_SOFTPLUS, 0, f_softplus, -30, 30), 0, 2 * tol);
        CHECK_NEAR(worst(k, EQNN_SSP, 0, f_ssp, -30, 30), 0, 2 * tol);
        CHECK_NEAR(worst(k, EQNN_SSP, 0, f_ssp, -1e-4, 1e-4), 0, 4 * tol);
        CHECK_NEAR(worst(k, EQNN_GELU, 0, f_gelu, -5, 10), 0, tails);
        CHECK_NEAR(worst(k, EQNN_ERF, 0, erf, -6, 6), 0, tol);
        CHECK_NEAR(worst(k, EQNN_SIN, 0, sin, -3.1, 3.1), 0, tol);
        CHECK_NEAR(worst(k, EQNN_COS, 0, cos, -1.5, 1.5), 0, tol);
        CHECK_NEAR((double)at(k, EQNN_SIN, 0, 0, 1e6), sin(1e6), test_eps(1e-14, 1e-7));
    }
}

/* f^(n+1) is the slope of f^(n), fourth-order differences; away from the corners. */
TEST(derivatives_of_every_order)
{
    const double x[] = { -3.2, -0.7, 0.3, 0.62, 0.83, 1.7, 4.1 };
    int orders = sizeof(eqnn_real) == 8 ? 10 : 2;
    double h = test_eps(2e-3, 3e-2), tol = test_eps(2e-6, 5e-2);
    EACH_LANES(k)
        for (int f = 0; f <= EQNN_COSINE_BUMP; f++)
            for (int n = 0; n < orders; n++)
                for (int i = 0; i < 7; i++) {
                    double p = f == EQNN_POW ? 2.5 : f == EQNN_POLY_CUTOFF ? 6 : 0.7, s, d;
                    if (f == EQNN_LOG && x[i] < 0) continue;
                    s = (double)at(k, f, n, p, x[i] - 2 * h) - (double)at(k, f, n, p, x[i] + 2 * h);
                    s += 8 * ((double)at(k, f, n, p, x[i] + h) - (double)at(k, f, n, p, x[i] - h));
                    d = (double)at(k, f, n + 1, p, x[i]);
                    if (!CHECK_NEAR(s / (12 * h), d, tol * fmax(1, pow(2, n))))
                        printf("    function %d, order %d, at %g, %d lanes\n", f, n, x[i], lanes);
                }
}

/* Angles in all octants, beside the axes, of tiny and of huge sides. */
TEST(angles)
{
    static const double sizes[] = { 1e-37, 1e-20, 1, 1e20, 3e38 };
    double pi = acos(-1), tol = test_eps(1e-15, 3e-7);
    EACH_LANES(k) {
        eqnn__device d = device(k, 1);
        eqnn__in none = in(NULL, 0, 0);
        for (int s = 0; s < 5; s++) {
            for (int i = 0; i < 360; i++) {
                A[i] = (eqnn_real)(sizes[s] * sin(i * pi / 180));
                B[i] = (eqnn_real)(sizes[s] * cos(i * pi / 180));
            }
            cpu->map(&d, EQNN__ATAN2, 0, 1, 360, in(A, 360, 1), in(B, 360, 1), none, 0, 0, Y);
            for (int i = 1; i < 360; i++)
                CHECK_NEAR((double)Y[i] / atan2((double)A[i], (double)B[i]), 1, tol);
        }
        double inf = HUGE_VAL, y[8] = { 0, 0, inf, -inf, inf, -inf, 1, 0 };
        double x[8] = { 0, -1, inf, inf, -inf, -inf, inf, -inf };
        for (int i = 0; i < 8; i++) A[i] = (eqnn_real)y[i], B[i] = (eqnn_real)x[i];
        cpu->map(&d, EQNN__ATAN2, 0, 1, 8, in(A, 8, 1), in(B, 8, 1), none, 0, 0, Y);
        for (int i = 0; i < 8; i++) CHECK_NEAR((double)Y[i], atan2(y[i], x[i]), 4 * tol);
        A[0] = 1, B[0] = (eqnn_real)NAN, A[1] = (eqnn_real)NAN, B[1] = 0;
        cpu->map(&d, EQNN__ATAN2, 0, 1, 2, in(A, 2, 1), in(B, 2, 1), none, 0, 0, Y);
        CHECK(isnan((double)Y[0]) && isnan((double)Y[1]));
    }
}

TEST(clamp_and_huber)
{
    EACH_LANES(k) {
        const double x[] = { -3, -1, -0.5, 0, 0.25, 2, 2.5, HUGE_VAL };
        for (int i = 0; i < 8; i++) {
            eqnn_real v = (eqnn_real)x[i], y[3];
            eqnn__device d = device(k, 1);
            for (int n = 0; n < 3; n++)
                cpu->map(&d, EQNN__CLAMP, n, 1, 1, in(&v, 1, 1), in(NULL, 0, 0), in(NULL, 0, 0), -1,
                         2, y + n);
            CHECK((double)y[0] == fmin(fmax(x[i], -1), 2));
            CHECK((double)y[1] == (x[i] >= -1 && x[i] <= 2));
            if (i < 7) CHECK((double)y[2] == 0);
            double a = fabs(x[i]), h = a < 2 ? a * a / 2 : 2 * (a - 1);
            if (i < 7) CHECK_NEAR((double)at(k, EQNN__HUBER, 0, 2, x[i]), h, 1e-6);
            CHECK((double)at(k, EQNN__HUBER, 1, 2, x[i]) == fmin(fmax(x[i], -2), 2));
            CHECK((double)at(k, EQNN__HUBER, 2, 2, x[i]) == (a <= 2));
        }
        CHECK(isnan((double)at(k, EQNN__HUBER, 0, 2, NAN)));
        CHECK(isnan((double)at(k, EQNN__HUBER, 1, 2, NAN)));
    }
}

TEST(awkward_arguments)
{
    EACH_LANES(k) {
        for (int n = 0; n < 4; n++) {
            CHECK((double)at(k, EQNN_POW, n, 0.5, 0) == 0);  /* a norm has a gradient at 0 */
            CHECK((double)at(k, EQNN_POW, n, -1, 0) == 0);
            CHECK((double)at(k, EQNN_POW, n, 0.5, -2) == 0);
            CHECK((double)at(k, EQNN_POW, n, 1.3, 0) == 0);
            CHECK((double)at(k, EQNN_SUS, n, 0, 0) == 0);
            CHECK((double)at(k, EQNN_SUS, n, 0, -1) == 0);
            CHECK((double)at(k, EQNN_RELU, n, 0, 0) == 0);
            CHECK((double)at(k, EQNN_ABS, n, 0, 0) == 0);
            CHECK((double)at(k, EQNN_LEAKY_RELU, n, 0.1, 0) == 0);
            CHECK((double)at(k, EQNN_STEP, n, 0, 0) == 0);
            CHECK((double)at(k, EQNN_POLY_CUTOFF, n, 6, 1) == 0);
            CHECK((double)at(k, EQNN_COSINE_CUTOFF, n, 0, 1.5) == 0);
            CHECK_NEAR((double)at(k, EQNN_SINC, n, 0, 0), n % 2 ? 0 : n ? -1. / 3 : 1, 1e-6);
        }
        eqnn_real far[3] = { 2000000, 0, 1 }, sinc[3]; /* a large number beside it is no matter */
        eqnn__device d = device(k, 1);
        cpu->map(&d, EQNN_SINC, 0, 1, 3, in(far, 3, 1), in(NULL, 0, 0), in(NULL, 0, 0), 0, 0, sinc);
        CHECK_NEAR((double)sinc[1], 1, 0);
        for (int p = 1; p < 9; p++) { /* a fading edge keeps its digits to the end */
            double x = (double)(eqnn_real)0.999, K = p * (p + 1) * (p + 2) / 6., t = 1 - x;
            double near = K * (1 - 3 * (p - 1) * t / 4); /* u = near t^3 + O(t^5) */
            CHECK_NEAR((double)at(k, EQNN_POLY_CUTOFF, 0, p, x) / pow(t, 3) / near, 1, 1e-4);
            CHECK_NEAR((double)at(k, EQNN_POLY_CUTOFF, 1, p, x) / -3 / t / t / K / pow(x, p - 1), 1,
                       1e-5);
        }
        CHECK((double)at(k, EQNN_EXP, 0, 0, -1000) == 0);
        CHECK(isinf((double)at(k, EQNN_EXP, 0, 0, 1000)));
        CHECK(isinf((double)at(k, EQNN_LOG, 0, 0, 0)));
        CHECK(isnan((double)at(k, EQNN_LOG, 0, 0, -1)));
        CHECK((double)at(k, EQNN_TANH, 0, 0, 1000) == 1);
        CHECK((double)at(k, EQNN_SIGMOID, 1, 0, -1000) == 0);
        CHECK((double)at(k, EQNN_GELU, 0, 0, -60) == 0);
        CHECK_NEAR((double)at(k, EQNN_POW, 0, 0.5, 1e-30), 1e-15, 1e-21);
        CHECK_NEAR((double)at(k, EQNN_POW, 0, 3, -2), -8, 1e-6);
        for (int f = 1; f <= EQNN_COSINE_BUMP; f++)
            for (int n = 0; n < 3; n++) {
                double y = (double)at(k, f, n, f == EQNN_POW ? 0.5 : 1, NAN);
                if (n == 0 && f != EQNN_STEP) CHECK(isnan(y)); /* bad numbers are passed on */
            }
        for (int f = 0; f <= EQNN_COSINE_BUMP; f++)
            for (int i = -40; i <= 40; i++)
                if (f != EQNN_LOG && f != EQNN_POW) /* these grow without bound at 0 */
                    CHECK(isfinite((double)at(k, f, EQNN__ORDERS, 1, 0.5 * i + 1e-3)));
    }
}

/* --- functions of two and three numbers; strides --- */

static double value(int op, double a, double b, double c)
{
    switch (op) {
    case EQNN__ADD: return a + b;
    case EQNN__SUB: return a - b;
    case EQNN__MUL: return a * b;
    case EQNN__DIV: return a / b;
    case EQNN__AXPBY: return 0.3 * a + 0.7 * b;
    case EQNN__SCALE: return 0.3 * a + 0.7;
    case EQNN__ATAN2: return atan2(a, b);
    case EQNN__LESS: return a < b;
    case EQNN__EQUAL: return a == b;
    case EQNN__MIN: return fmin(a, b);
    case EQNN__MAX_OF: return fmax(a, b);
    case EQNN__WHERE: return a != 0 ? b : c;
    case EQNN__FMA: return a * b + c;
    default: return b * f_silu(a);
    }
}

TEST(strides_stretch)
{
    const size_t sizes[][2] = { { 1, 1 },  { 1, 7 },   { 9, 1 },    { 3, 5 },
                                { 40, 3 }, { 2, 600 }, { 11, 130 }, { 70, 16 } };
    fill(A, N, 1);
    fill(B, N, 2);
    fill(C, N, 3);
    EACH_LANES(k)
        for (int op = EQNN__ADD - 1; op <= EQNN__FMA; op++)
            for (int s = 0; s < 8 * 16; s++) {
                size_t rows = sizes[s / 16][0], cols = sizes[s / 16][1];
                eqnn__device d = device(k, 1);
                eqnn__in a = in(A, s & 1 ? 0 : cols, s & 2 ? 0 : 1),
                         b = in(B, s & 4 ? 0 : cols, s & 8 ? 0 : 1);
                eqnn__in c = in(C, 1, rows); /* transposed */
                double error = 0;
                cpu->map(&d, op < EQNN__ADD ? (int)EQNN_SILU : op, 0, rows, cols, a, b, c, 0.3, 0.7,
                       Y);
                for (size_t i = 0; i < rows * cols; i++) {
                    size_t r = i / cols, q = i % cols;
                    double v = value(op, (double)a.p[r * a.rs + q * a.cs],
                                     (double)b.p[r * b.rs + q * b.cs],
                                     (double)c.p[r * c.rs + q * c.cs]);
                    error = fmax(error, fabs((double)Y[i] - v) / fmax(1, fabs(v)));
                }
                CHECK_NEAR(error, 0, test_eps(1e-14, 2e-6));
            }
}

/* --- folds, softmax, moving --- */

static int first[200], order[N];

static void segments(int n, int rows)
{
    for (int i = 0; i <= n; i++) first[i] = i * i * rows / (n * n); /* the first one may be empty */
    for (int i = 0; i < rows; i++) order[i] = (int)((long)i * 7 % rows);
}

/* Sum or largest of column c over rows list[begin..end), or of row r when list is NULL. */
static double folded(int op, const eqnn_real *x, size_t n, size_t stride)
{
    double y = 0;
    for (size_t i = 0; i < n; i++)
        y = op == EQNN__SUM ? y + (double)x[i * stride]
            : i == 0        ? (double)x[0]
                            : fmax(y, (double)x[i * stride]);
    return y;
}

TEST(folds)
{
    const size_t cols_of[] = { 1, 2, 7, 16, 37, 64 };
    double tol = test_eps(1e-13, 2e-5), sum;
    fill(A, N, 4);
    EACH_LANES(k)
        for (int s = 0; s < 12; s++) {
            size_t cols = cols_of[s / 2], rows = s % 2 ? 90 : 1;
            eqnn__device d = device(k, 1);
            for (int op = EQNN__SUM; op <= EQNN__MAX; op++) {
                cpu->fold_rows(&d, op, rows, cols, A, Y);
                for (size_t c = 0; c < cols; c++)
                    CHECK_NEAR((double)Y[c], folded(op, A + c, rows, cols), tol);
                cpu->fold_cols(&d, op, rows, cols, A, Y);
                for (size_t r = 0; r < rows; r++)
                    CHECK_NEAR((double)Y[r], folded(op, A + r * cols, cols, 1), tol);
                cpu->fold_rows(&d, op, 0, cols, A, Y);
                CHECK((double)Y[0] == 0);
            }
            for (size_t bad = 0; bad < 100 && bad < rows * cols; bad += 13) { /* NaN stays */
                memcpy(B, A, rows * cols * sizeof *B);
                B[bad] = (eqnn_real)NAN;
                cpu->fold_rows(&d, EQNN__MAX, rows, cols, B, Y);
                for (size_t c = 0; c < cols; c++) CHECK(isnan((double)Y[c]) == (c == bad % cols));
                cpu->fold_cols(&d, EQNN__MAX, rows, cols, B, Y);
                for (size_t r = 0; r < rows; r++) CHECK(isnan((double)Y[r]) == (r == bad / cols));
            }
            cpu->dot_rows(&d, rows, cols, A, A + 3, Y);
            for (size_t c = 0; c < cols; c++) {
                sum = 0;
                for (size_t i = c; i < rows * cols; i += cols)
                    sum += (double)A[i] * (double)A[i + 3];
                CHECK_NEAR((double)Y[c], sum, tol);
            }
            cpu->total(&d, 1, rows * cols, A, &sum, 0);
            cpu->total(&d, 0, rows * cols, A, &sum, 1);
            for (size_t i = 0; i < rows * cols; i++)
                sum -= (double)A[i] * (double)A[i] + (double)A[i];
            CHECK_NEAR(sum, 0, 1e-9);
        }
}

/* 300 segments, of which rows 0 .. 2 go to number 70, 3 to 71 and 4 to 299. */
TEST(mostly_empty_segments)
{
    static const int ends[] = { 70, 71, 299 }, rows[] = { 3, 1, 1 };
    static int start[301];
    fill(A, N, 6);
    memset(start, 0, sizeof start);
    for (int i = 0; i < 3; i++) start[ends[i] + 1] = rows[i];
    for (int s = 0; s < 300; s++) start[s + 1] += start[s];
    EACH_LANES(k)
        for (size_t cols = 1; cols <= 17; cols += cols < 5 ? 1 : 4) {
            eqnn__device d = device(k, 1);
            for (size_t i = 0; i <= 300 * cols; i++) Y[i] = 7;
            cpu->fold_segments(&d, EQNN__SUM, 300, start, NULL, cols, A, Y);
            CHECK(Y[300 * cols] == 7);
            for (size_t s = 0; s < 300; s++)
                for (size_t c = 0; c < cols; c++) {
                    size_t n = (size_t)(start[s + 1] - start[s]);
                    const eqnn_real *x = A + (size_t)start[s] * cols + c;
                    CHECK_NEAR((double)Y[s * cols + c], folded(EQNN__SUM, x, n, cols), 1e-6);
                }
        }
}

/* The first of the largest, with equal numbers, a NaN that comes first and one that does not. */
TEST(largest_of_segments)
{
    EACH_LANES(k)
        for (size_t cols = 1; cols <= 37; cols += 4) {
            eqnn__device d = device(k, 1);
            const int *list = cols % 8 == 1 ? order : NULL;
            segments(6, 97);
            for (size_t i = 0; i < 97 * cols; i++)
                A[i] = i % 11 == 10 ? (eqnn_real)NAN : (eqnn_real)(i * i % 7);
            cpu->largest(&d, 6, first, list, cols, A, Y, Z);
            for (size_t i = 0; i < 6 * cols; i++) {
                int begin = first[i / cols], best = begin;
                for (int j = begin; j < first[i / cols + 1]; j++) {
                    const eqnn_real *x = A + i % cols;
                    if (x[(size_t)(list ? list[j] : j) * cols] >
                        x[(size_t)(list ? list[best] : best) * cols]) best = j;
                }
                CHECK(Y[i] == (eqnn_real)(best - begin));
                for (int j = begin; j < first[i / cols + 1]; j++)
                    CHECK(Z[(size_t)(list ? list[j] : j) * cols + i % cols] == (j == best));
            }
        }
}

TEST(segments_and_softmax)
{
    const size_t cols_of[] = { 1, 4, 8, 16, 37 };
    double tol = test_eps(1e-13, 2e-5);
    fill(A, N, 5);
    EACH_LANES(k)
        for (int s = 0; s < 10; s++) {
            size_t cols = cols_of[s / 2];
            int rows = 97, n = 6;
            const int *list = s % 2 ? order : NULL;
            eqnn__device d = device(k, 1);
            segments(n, rows);
            cpu->softmax(&d, (size_t)n, first, list, cols, A, Z);
            for (int op = EQNN__SUM; op <= EQNN__MAX; op++) {
                cpu->fold_segments(&d, op, (size_t)n, first, list, cols, A, Y);
                for (int i = 0; i < n * (int)cols; i++) {
                    int g = i / (int)cols, c = i % (int)cols;
                    double y = 0, norm = 0;
                    for (int j = first[g]; j < first[g + 1]; j++) {
                        double v = (double)A[(size_t)(list ? list[j] : j) * cols + (size_t)c];
                        y = op == EQNN__SUM ? y + v : j == first[g] ? v : fmax(y, v);
                        norm += exp(v);
                    }
                    CHECK_NEAR((double)Y[i], y, tol);
                    for (int j = first[g]; j < first[g + 1]; j++) {
                        size_t q = (size_t)(list ? list[j] : j) * cols + (size_t)c;
                        CHECK_NEAR((double)Z[q], exp((double)A[q]) / norm, tol);
                    }
                }
            }
            cpu->softmax(&d, 50, NULL, NULL, cols, A, Z);
            cpu->fold_cols(&d, EQNN__SUM, 50, cols, Z, Y);
            for (int r = 0; r < 50; r++) CHECK_NEAR((double)Y[r], 1, tol);
            CHECK_NEAR((double)(Z[cols - 1] / Z[0]), exp((double)(A[cols - 1] - A[0])), tol * 10);
        }
}

TEST(moving)
{
    const int map[] = { 3, 0, 0, 2, 4 }, starts[] = { 0, 2, 2, 5 }, list[] = { 1, 4, 0, 3, 3 };
    fill(A, N, 6);
    segments(3, 40);
    EACH_LANES(k) {
        eqnn__device d = device(k, 1);
        cpu->take_rows(&d, 40, 37, order, A, Y);
        for (size_t i = 0; i < 40 * 37; i++) CHECK(Y[i] == A[(size_t)order[i / 37] * 37 + i % 37]);
        for (size_t n = 0; n < 9 * 9; n++) {
            static const size_t sides[] = { 1, 2, 3, 4, 8, 15, 16, 33, 70 };
            size_t rows = sides[n / 9], cols = sides[n % 9];
            for (size_t i = 0; i <= rows * cols; i++) Y[i] = 7;
            cpu->transpose(&d, rows, cols, A, Y);
            for (size_t i = 0; i < rows * cols; i++)
                CHECK(Y[i % cols * rows + i / cols] == A[i]);
            CHECK(Y[rows * cols] == 7);
        }
        memcpy(Y, A, sizeof Y);
        cpu->copy2d(&d, 20, 19, A, 30, Y, 25, 1);
        for (size_t i = 0; i < 20 * 25; i++)
            CHECK(Y[i] == (i % 25 < 19 ? A[i] + A[i / 25 * 30 + i % 25] : A[i]));
        cpu->copy2d(&d, 90, 60, A, 60, Y, 60, 0);
        CHECK(memcmp(A, Y, 90 * 60 * sizeof *A) == 0);
        cpu->take_cols(&d, 30, 5, map, A, 9, Y);
        for (size_t i = 0; i < 150; i++) CHECK(Y[i] == A[i / 5 * 9 + (size_t)map[i % 5]]);
        cpu->add_cols(&d, 30, 3, starts, list, A, 9, Y);
        for (size_t r = 0; r < 30; r++) {
            const eqnn_real *x = A + r * 9;
            CHECK_NEAR((double)Y[r * 3], (double)(x[1] + x[4]), 1e-6);
            CHECK((double)Y[r * 3 + 1] == 0);
            CHECK_NEAR((double)Y[r * 3 + 2], (double)(x[0] + x[3] + x[3]), 1e-6);
        }
        d.flag = 0;
        cpu->check(&d, N, A);
        CHECK(d.flag == 0);
        memcpy(Y, A, sizeof Y);
        Y[N - 1] = (eqnn_real)NAN;
        cpu->check(&d, N, Y);
        CHECK(d.flag == 1);
    }
}

/* --- matrix product --- */

static void product(const eqnn__loops *k, int ta, int tb, size_t m, size_t n, size_t p,
                    double beta, size_t batch, int sum)
{
    size_t pad = (m + n) % 3, lda = (ta ? m : p) + pad, ldb = (tb ? p : n) + pad, ldc = n + pad;
    size_t sa = lda * (ta ? p : m), sb = ldb * (tb ? n : p), sc = sum ? 0 : ldc * m;
    eqnn__device d = device(k, 1);
    double error = 0;
    if (sa * batch > N || sb * batch > N || ldc * m * batch > N) return;
    memcpy(Y, C, sizeof Y);
    for (size_t i = 0; i < N; i++) /* beta 0: C is not read */
        if (beta == 0 && i < (sum ? 1 : batch) * ldc * m && i % ldc < n) Y[i] = (eqnn_real)NAN;
    cpu->gemm(&d, ta, tb, m, n, p, 0.5, A, lda, sa, B, ldb, sb, beta, Y, ldc, sc, batch);
    for (size_t i = 0; i < N; i++) {
        size_t b = i / (ldc * m), r = i / ldc % m, c = i % ldc;
        double y = 0;
        if (b >= (sum ? 1 : batch) || c >= n) {
            if (Y[i] != C[i]) error = INFINITY; /* nothing else is written */
            continue;
        }
        for (size_t q = sum ? 0 : b; q <= (sum ? batch - 1 : b); q++)
            for (size_t s = 0; s < p; s++)
                y += (double)A[q * sa + (ta ? s * lda + r : r * lda + s)] *
                     (double)B[q * sb + (tb ? c * ldb + s : s * ldb + c)];
        error = fmax(error, fabs((double)Y[i] - 0.5 * y - (beta != 0 ? beta * (double)C[i] : 0)));
        if (isnan((double)Y[i])) error = INFINITY;
    }
    if (!CHECK_NEAR(error, 0, test_eps(1e-14, 1e-6) * (double)(p * batch + 4)))
        printf("    %d lanes: %d%d [%zu,%zu,%zu] batch %zu sum %d\n", k->lanes, ta, tb, m, n, p,
               batch, sum);
}

TEST(matrix_products)
{
    const size_t size[] = { 1, 2, 3, 4, 7, 8, 12, 16, 17, 31, 33, 65 };
    fill(A, N, 7);
    fill(B, N, 8);
    fill(C, N, 9);
    EACH_LANES(k) {
        for (int i = 0; i < 12 * 12 * 12; i++) {
            size_t m = size[i / 144], n = size[i / 12 % 12], p = size[i % 12];
            product(k, i & 1, i >> 1 & 1, m, n, p, i % 3, 1, 0);
            product(k, i >> 1 & 1, i & 1, m, n, p, i % 2, 3, i % 5 == 0);
        }
        product(k, 0, 0, 5, 9, 600, 1, 1, 0);
        product(k, 1, 1, 9, 5, 600, 0, 1, 0);
        product(k, 1, 0, 2, 1, 2500, 0, 1, 1); /* a long sum is cut into parts */
        product(k, 0, 0, 16, 300, 17, 0, 1, 0);
        product(k, 0, 0, 150, 3, 33, 1, 1, 0);
        product(k, 0, 1, 150, 1, 33, 1, 1, 0);
        product(k, 0, 0, 3, 4, 0, 2, 1, 0);
    }
}

/* --- random numbers, training step --- */

TEST(random_numbers)
{
    EACH_LANES(k) {
        eqnn__device d = device(k, 1);
        double sum = 0, squares = 0, inside = 0, low = 1, high = 0;
        int kept = 0;
        cpu->random(&d, EQNN__NORMAL, 1, 2, N, 0, A);
        for (int i = 0; i < N; i++) {
            sum += (double)A[i];
            squares += (double)A[i] * (double)A[i];
            inside += fabs((double)A[i]) < 1;
        }
        CHECK_NEAR(sum / N, 0, 0.05);
        CHECK_NEAR(squares / N, 1, 0.06);
        CHECK_NEAR(inside / N, 0.6827, 0.02);
        cpu->random(&d, EQNN__UNIFORM, 1, 2, N, 0, B);
        for (int i = 0; i < N; i++) low = fmin(low, (double)B[i]), high = fmax(high, (double)B[i]);
        CHECK(low >= 0 && low < 0.01 && high < 1 && high > 0.99);
        cpu->random(&d, EQNN__MASK, 1, 2, N, 0.25, C);
        for (int i = 0; i < N; i++) {
            kept += C[i] != 0;
            CHECK((double)C[i] == 0 || fabs((double)C[i] - 4. / 3) < 1e-6);
        }
        CHECK_NEAR(kept / (double)N, 0.75, 0.02);
        cpu->random(&d, EQNN__NORMAL, 1, 2, 100, 0, Y);
        CHECK(memcmp(A, Y, 100 * sizeof *Y) == 0); /* the same stream, the same numbers */
        cpu->random(&d, EQNN__NORMAL, 1, 3, 100, 0, Y);
        CHECK(A[0] != Y[0]);
    }
}

/* Any vector gives the same bits, of any length, and what one number at a time gives. */
TEST(random_numbers_of_any_vector)
{
    static const size_t lengths[] = { 0, 1, 2, 5, 31, N };
    for (int kind = EQNN__UNIFORM; kind <= EQNN__MASK; kind++) {
        int seen = 0;
        EACH_LANES(k) {
            eqnn__device d = device(k, 1);
            uint64_t stream = eqnn__stream(7, 11);
            cpu->random(&d, kind, 7, 11, N, 0.3, A);
            if (seen++) CHECK(memcmp(A, B, sizeof A) == 0 || lanes == 1);
            memcpy(B, A, sizeof A);
            for (size_t i = 0; i < N; i++) {
                double u = kind == EQNN__NORMAL ? eqnn__normal(stream, i)
                           : kind == EQNN__UNIFORM ? eqnn__uniform(stream, i)
                                                   : (eqnn__uniform(stream, i) >= 0.3) / 0.7;
                CHECK_NEAR((double)A[i], u, test_eps(4e-15, 5e-7));
            }
            for (int n = 0; n < 6; n++) {
                memset(Y, 0, sizeof Y);
                cpu->random(&d, kind, 7, 11, lengths[n], 0.3, Y);
                CHECK(memcmp(A, Y, lengths[n] * sizeof *A) == 0);
                if (lengths[n] < N) CHECK(Y[lengths[n]] == 0);
            }
        }
    }
}

TEST(training_step)
{
    EACH_LANES(k)
        for (int kind = EQNN__SGD; kind <= EQNN__EMA; kind++)
            for (int nesterov = 0; nesterov < 2; nesterov++) { /* of Adam: AMSGrad */
                enum { n = 43 };
                eqnn_real w[n], g[n], m[n], v[n], most[n], w0[n];
                eqnn__device d = device(k, 1);
                double squares = 4;
                eqnn__update u;
                memset(&u, 0, sizeof u);
                u.kind = kind, u.nesterov = nesterov;
                u.rate = 0.01, u.beta1 = 0.9, u.beta2 = 0.99, u.eps = 1e-8, u.decay = 0.1,
                u.l2 = 0.01;
                u.correct1 = 0.1, u.correct2 = 0.01, u.momentum = 0.8;
                u.squares = &squares, u.clip = 1; /* the gradient times 1/2 */
                fill(w, n, 1), fill(g, n, 2), fill(m, n, 3), fill(v, n, 4);
                for (int i = 0; i < n; i++) v[i] = (eqnn_real)fabs((double)v[i]);
                for (int i = 0; i < n; i++) most[i] = v[i] * (i % 2 ? 2 : 0.5f);
                memcpy(C, most, sizeof most);
                memcpy(w0, w, sizeof w);
                memcpy(A, m, sizeof m);
                memcpy(B, v, sizeof v);
                cpu->update(&d, &u, n, w, kind == EQNN__EMA ? NULL : g, m,
                            kind == EQNN__ADAM ? v : NULL,
                            kind == EQNN__ADAM && nesterov ? most : NULL);
                for (int i = 0; i < n; i++) {
                    double x = (double)w0[i], dx = 0.5 * (double)g[i] + 0.01 * x, s = (double)A[i],
                           y;
                    if (kind == EQNN__EMA) {
                        CHECK_NEAR((double)m[i], 0.9 * s + 0.1 * x, 1e-6);
                        continue;
                    }
                    s = kind == EQNN__ADAM ? 0.9 * s + 0.1 * dx : 0.8 * s + dx;
                    y = 0.99 * (double)B[i] + 0.01 * dx * dx;
                    if (kind == EQNN__ADAM) CHECK_NEAR((double)v[i], y, 1e-6);
                    if (kind == EQNN__ADAM && nesterov) y = fmax(y, (double)C[i]);
                    if (kind == EQNN__ADAM && nesterov) CHECK_NEAR((double)most[i], y, 1e-6);
                    y = kind == EQNN__ADAM ? s / 0.1 / (sqrt(y) / sqrt(0.01) + 1e-8)
                        : nesterov         ? dx + 0.8 * s
                                           : s;
                    CHECK_NEAR((double)m[i], s, 1e-6);
                    CHECK_NEAR((double)w[i], x - 0.01 * (0.1 * x + y), 1e-6);
                }
            }
}

/* --- the same bits --- */

static uint64_t bits(const eqnn__loops *k, int threads)
{
    static eqnn_real x[200000], y[200000];
    eqnn__device d = device(k, threads);
    uint64_t h = 14695981039346656037u;
    eqnn__in none = in(NULL, 0, 0);
    size_t n = sizeof x / sizeof *x;
    cpu->random(&d, EQNN__UNIFORM, 5, 6, n, 0, x);
    for (int step = 0; step < 8; step++) {
        if (step == 0) cpu->map(&d, EQNN_GELU, 1, 2000, 100, in(x, 100, 1), none, none, 0, 0, y);
        if (step == 1)
            cpu->map(&d, EQNN__FMA, 0, 2000, 100, in(x, 100, 1), in(x, 0, 1), in(x, 1, 0), 0, 0, y);
        if (step == 2) cpu->fold_rows(&d, EQNN__SUM, 2000, 100, x, y);
        if (step == 3) cpu->fold_cols(&d, EQNN__SUM, 1000, 200, x, y);
        if (step == 4) cpu->softmax(&d, 1000, NULL, NULL, 200, x, y);
        if (step == 5) cpu->gemm(&d, 0, 1, 300, 200, 400, 1, x, 400, 0, x, 400, 0, 0, y, 200, 0, 1);
        if (step == 6) cpu->gemm(&d, 1, 0, 20, 30, 5000, 1, x, 20, 0, x, 30, 0, 0, y, 30, 0, 1);
        if (step == 7)
            cpu->gemm(&d, 0, 0, 10, 12, 13, 1, x, 13, 130, x, 12, 0, 0, y, 12, 120, 1000);
        for (size_t i = 0; i < n; i++) {
            eqnn__uint b;
            memcpy(&b, y + i, sizeof b);
            h = (h ^ b) * 1099511628211u;
        }
    }
    return h;
}

TEST(same_bits)
{
    const eqnn__loops *wide = eqnn__loops_pick(0);
    uint64_t h = bits(wide, 1);
    CHECK(bits(wide, 2) == h && bits(wide, 5) == h);
#ifdef EQNN_STRICT
    EACH_LANES(k) CHECK(bits(k, 1) == h);
#else
    if (wide->lanes >= 8) CHECK(bits(eqnn__loops_pick(8), 1) == h);
#endif
}

/* --- solid harmonics --- */

/* Points on the unit sphere, every tenth near a pole, one at the origin. */
static void sphere(eqnn_ctx *c, int n, double *r)
{
    for (int i = 0; i < n; i++) {
        double *v = r + 3 * i;
        eqnn_random(c, eqnn_format(c, "vector %d", i), 1, 3, v);
        if (i % 10 == 0) v[0] *= 0.03, v[2] *= 0.03;
        double size = sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]);
        for (int k = 0; k < 3; k++) v[k] = i == 5 ? 0 : (double)(eqnn_real)(v[k] / size);
    }
}

/* d/dr_axis of the double version by the terms of the gradient. */
static double gradient(const double *y, int l, int m, int axis)
{
    eqnn__gradient_term t[5];
    double s = 0;
    for (int i = l ? eqnn__gradient_terms(l, m, t) : 0; i > 0; i--)
        if (t[i - 1].axis == axis) s += t[i - 1].g * y[(l - 1) * (l - 1) + l - 1 + t[i - 1].n];
    return s;
}

/* A cotangent times the Jacobian, which the kernel makes anew, against that Jacobian. */
static double compare_vjp(eqnn_ctx *c, int lmax, size_t n, const eqnn_real *x, const eqnn_real *J)
{
    size_t cols = (size_t)(lmax + 1) * (size_t)(lmax + 1);
    eqnn_real *g = (eqnn_real *)calloc(n * cols + 1, sizeof *g);
    eqnn_real *d = (eqnn_real *)calloc(3 * n + 1, sizeof *d);
    double *random = (double *)calloc(n * cols + 1, sizeof *random), worst = 0;
    eqnn_random(c, "g", 1, n * cols, random);
    for (size_t i = 0; i < n * cols; i++) g[i] = (eqnn_real)random[i];
    d[3 * n] = 7;
    c->k->solid_vjp(&c->device, lmax, n, x, g, d);
    CHECK(d[3 * n] == 7);
    for (size_t i = 0; i < 3 * n; i++) {
        double sum = 0, size = 1;
        for (size_t k = 0; k < cols; k++) {
            double a = (double)J[3 * (i / 3 * cols + k) + i % 3];
            sum += a * (double)g[i / 3 * cols + k];
            size += a * a;
        }
        worst = fmax(worst, fabs((double)d[i] - sum) / sqrt(size));
    }
    free(g), free(d), free(random);
    return worst;
}

/* Values and Jacobian of one instruction set against the double version. */
static void compare_kernel(eqnn_ctx *c, int lmax, int n, double worst[2])
{
    size_t cols = (size_t)(lmax + 1) * (size_t)(lmax + 1), points = (size_t)n;
    double *r = (double *)calloc(3 * points, sizeof *r), *y = (double *)calloc(cols, sizeof *y);
    eqnn_real *x = (eqnn_real *)calloc(3 * points, sizeof *x);
    eqnn_real *P = (eqnn_real *)calloc(points * cols + 1, sizeof *P);
    eqnn_real *J = (eqnn_real *)calloc(3 * points * cols + 1, sizeof *J);
    eqnn_real *Q = (eqnn_real *)calloc(points * cols + 1, sizeof *Q);
    sphere(c, n, r);
    for (size_t i = 0; i < 3 * points; i++) x[i] = (eqnn_real)r[i];
    P[points * cols] = J[3 * points * cols] = 7; /* behind the end */
    c->k->solid(&c->device, lmax, points, x, P, J);
    c->k->solid(&c->device, lmax, points, x, Q, NULL);
    CHECK(P[points * cols] == 7 && J[3 * points * cols] == 7);
    CHECK(!memcmp(P, Q, points * cols * sizeof *P)); /* the values do not depend on the Jacobian */
    if (lmax >= 1 && lmax <= EQNN__SOLID_LMAX)
        CHECK_NEAR(compare_vjp(c, lmax, points, x, J), 0, test_eps(1e-13, 5e-6));
    for (size_t i = 0; i < points; i++) {
        eqnn_solid_harmonics(lmax, r + 3 * i, y);
        for (int l = 0; l <= lmax; l++)
            for (int m = -l; m <= l; m++) {
                size_t k = (size_t)(l * l + l + m);
                double e = fabs((double)P[i * cols + k] - y[k]);
                worst[0] = fmax(worst[0], e == e ? e : 1);
                for (int axis = 0; axis < 3; axis++) {
                    double g = gradient(y, l, m, axis);
                    e = fabs((double)J[3 * (i * cols + k) + (size_t)axis] - g);
                    worst[1] = fmax(worst[1], (e == e ? e : 1) / (l + 1));
                }
            }
    }
    free(r), free(y), free(x), free(P), free(J), free(Q);
}

TEST(harmonics_kernels)
{
    static const int lanes[4] = { 16, 8, 4, 1 }, counts[5] = { 0, 1, 15, 33, 200 };
    for (int p = 0; p < 4; p++) {
        eqnn_opts o = test_opts();
        o.lanes = lanes[p];
        eqnn_ctx *c = eqnn_make(&o);
        for (int lmax = 0; lmax <= 18; lmax += lmax < 12 ? 1 : 2) {
            double worst[2] = { 0, 0 };
            for (int k = 0; k < 5; k++) compare_kernel(c, lmax, counts[k], worst);
            test_note("%s, l <= %d: values %.1e, Jacobian / (l+1) %.1e", c->device.loops->name,
                      lmax, worst[0], worst[1]);
            double size = lmax > 10 ? 2 : 1;
            CHECK_NEAR(worst[0], 0, size * test_eps(5e-14, 2e-6));
            CHECK_NEAR(worst[1], 0, size * test_eps(5e-14, 2e-6));
        }
        eqnn_free(c);
    }
}

/* What a context was made with reaches the kernels; a worker has its own threads and lanes. */
TEST(options_reach_kernels)
{
    static const int lanes[4] = { 16, 8, 4, 1 };
    eqnn_ctx *c[4];
    for (int i = 0; i < 4; i++) {
        eqnn_opts o = test_opts();
        o.lanes = lanes[i];
        o.threads = 2 + i;
        o.tf32 = i % 2;
        o.weights_of = i == 3 ? c[0] : NULL;
        c[i] = eqnn_make(&o);
        CHECK_OK(c[i]);
        CHECK(c[i]->device.loops == eqnn__loops_pick(lanes[i]) && c[i]->device.threads == 2 + i);
        CHECK(c[i]->device.tf32 == i % 2);
    }
    for (int i = 3; i >= 0; i--) eqnn_free(c[i]);
}

TEST(harmonics_threads)
{
    int n = 20000;
    eqnn_opts o = test_opts();
    eqnn_real *x = (eqnn_real *)calloc((size_t)n * 3, sizeof *x), *P[2];
    eqnn_ctx *c = test_context();
    double *r = (double *)calloc((size_t)n * 3, sizeof *r);
    eqnn_random(c, "x", 1, (size_t)n * 3, r);
    for (int i = 0; i < 3 * n; i++) x[i] = (eqnn_real)r[i];
    for (int t = 0; t < 2; t++) {
        o.threads = 1 + 2 * t;
        eqnn_ctx *worker = eqnn_make(&o);
        P[t] = (eqnn_real *)calloc((size_t)n * 64, sizeof **P);
        worker->k->solid(&worker->device, 7, (size_t)n, x, P[t], NULL);
        eqnn_free(worker);
    }
    CHECK(!memcmp(P[0], P[1], (size_t)n * 64 * sizeof **P));
    free(x), free(r), free(P[0]), free(P[1]);
}

/* What is not finite in one item stays in its lane: z = x y + x y, two records of one column. */
TEST(infinite_items)
{
    static eqnn_real x[16], y[16], z[16];
    int col[6] = { 0 }, column = 0, both[2] = { 0, 2 }, list[2] = { 0, 1 };
    eqnn_real one[2] = { 1, 1 };
    eqnn__poly_plan_t p;
    memset(&p, 0, sizeof p);
    p.slots = 3, p.copies = 1, p.records = 2, p.widest = 1, p.col = col, p.c = one;
    for (int s = 0; s < 3; s++)
        p.used[s] = 1, p.column[s] = &column, p.first[s] = both, p.order[s] = list;
    for (int i = 0; i < 16; i++) x[i] = (eqnn_real)(i + 1), y[i] = 2;
    x[0] = (eqnn_real)INFINITY;
    EACH_LANES(k) {
        const eqnn_real *in[3] = { x, y, NULL };
        memset(z, 0, sizeof z);
        k->poly(&p, 2, 16, 16, in, z);
        for (int i = 1; i < 16; i++) CHECK_NEAR(z[i], 4 * (i + 1), 0);
    }
}

/* The terms of the gradient are e3nn's recursion: (2l+1) sqrt(l) C(l, 1, l-1). */
TEST(gradient_terms)
{
    static double coupling[25 * 3 * 23];
    for (int l = 1; l <= 12; l++) {
        int cols = 2 * l - 1; /* of degree l - 1 */
        eqnn_wigner_3j(l, 1, l - 1, coupling);
        for (int m = -l; m <= l; m++) {
            eqnn__gradient_term t[5];
            int n = eqnn__gradient_terms(l, m, t), found = 0;
            for (int i = 0; i < n; i++) {
                double c = coupling[((m + l) * 3 + t[i].axis) * cols + t[i].n + l - 1];
                CHECK_NEAR(t[i].g, (2 * l + 1) * sqrt((double)l) * c, 1e-13);
            }
            for (int k = 0; k < 3 * cols; k++) found += coupling[(m + l) * 3 * cols + k] != 0;
            CHECK(found == n);
        }
    }
}

TEST(coupling_cached)
{
    eqnn_ctx *c = test_context();
    const double *C3 = eqnn__w3j(c, 1, 2, 3);
    double again[105];
    CHECK(C3 && C3 == eqnn__w3j(c, 1, 2, 3));
    eqnn_wigner_3j(1, 2, 3, again);
    for (int i = 0; C3 && i < 105; i++) CHECK_NEAR(C3[i], again[i], 0);
    CHECK(eqnn__w3j(c, 1, 1, 3) == NULL);
    CHECK_OK(c);
    CHECK(eqnn__w3j(c, 40, 40, 3) == NULL);
    CHECK_ERROR(c, "(40,40,3)");
}

TEST_MAIN
