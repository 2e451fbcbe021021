/* lie.c - tests of eqnn_groups.h, section 6: Lie groups, lifts, pairs, neighbours */
#include "test.h"
#include <locale.h>
#include "../eqnn_groups.h"

static const double pi = 3.14159265358979323846;

/* All that are built in; SE(2)_canonical(n) has tests of its own. */
static const char *const names[] = { "T(2)", "T(3)",         "Tx(3)", "Ty(2)", "SO(2)", "RxSO(2)",
                                     "Rx",   "Rx_published", "SE(2)", "SO(3)", "SE(3)", "RxSQ",
                                     "SQ",   NULL };

/* Coordinates of n elements, angles below about 2.5. */
static eqnn_tensor *coordinates(eqnn_ctx *c, const eqnn_lie *g, int n)
{
    return test_uniform(c, n, eqnn_lie_dim(g), -1.4, 1.4);
}

static eqnn_tensor *elements(eqnn_ctx *c, const eqnn_lie *g, int n)
{
    return eqnn_lie_exp(g, coordinates(c, g, n));
}

/* Points on which the group acts: positive where logarithms are taken. */
static eqnn_tensor *points_of(eqnn_ctx *c, const eqnn_lie *g, int n)
{
    int d = eqnn_lie_point_dim(g);
    return strstr(eqnn_lie_name(g), "SQ") ? test_uniform(c, n, d, 0.3, 2) : test_normal(c, n, d);
}

static const eqnn_graph *complete(eqnn_ctx *c, int n)
{
    eqnn_graph_opts o;
    memset(&o, 0, sizeof o);
    o.loops = 1;
    return eqnn_complete_graph(c, n, &o);
}

/* Where a number has a comma, .2 is still a number. */
TEST(alpha_whatever_the_locale)
{
    static const char *const commas[] = { "de_DE.UTF-8", "de_DE.utf8", "de_DE", "fr_FR.UTF-8",
                                          "German_Germany.1252" };
    eqnn_ctx *c = test_context();
    double alpha = 0;
    int i = 0;
    while (i < 5 && !setlocale(LC_NUMERIC, commas[i])) i++;
    test_note("locale %s", i < 5 ? commas[i] : "C: there is no other");
    CHECK(eqnn_lie_weighed(c, "SE3(.05)", &alpha) && alpha == 0.05);
    CHECK_OK(c);
    setlocale(LC_NUMERIC, "C");
}

TEST(alpha_behind_a_group)
{
    static const struct { const char *text, *name; double alpha; } cases[] = {
        { "SE3(.2)", "SE3", .2 }, { "SE2(.05)", "SE2", .05 },   { "RxSO2(.3)", "RxSO2", .3 },
        { "Rx(.1)", "Rx", .1 },   { "SO3(1)", "SO3", 1 },       { "SO2()", "SO2", .2 },
        { "T(3)", "T(3)", .2 },   { "Trivial(2)", "Trivial(2)", .2 },
        { "SE(2)_canonical(4)", "SE(2)_canonical(4)", .2 },     { "SO3", "SO3", .2 },
        { "SE3(1/2)", "SE3", .5 },                              { "RxSQ(1/4)", "RxSQ", .25 }
    };
    eqnn_ctx *c = test_context();
    double alpha;
    for (size_t k = 0; k < sizeof cases / sizeof cases[0]; k++) {
        const eqnn_lie *g = eqnn_lie_weighed(c, cases[k].text, &alpha);
        CHECK(g && g == eqnn_lie_make(c, cases[k].name) && alpha == cases[k].alpha);
    }
    CHECK(eqnn_lie_weighed(c, "SE3(2.5e-1)", &alpha) && alpha == .25);
    CHECK(!eqnn_lie_weighed(c, "SE3(.2.)", &alpha));
    CHECK_ERROR(c, "from 0 to 1");
    CHECK(!eqnn_lie_weighed(c, "SE3(1.5)", &alpha));
    CHECK_ERROR(c, "from 0 to 1");
    CHECK(!eqnn_lie_weighed(c, "SE3(1/0)", &alpha));
    CHECK_ERROR(c, "from 0 to 1");
    CHECK(!eqnn_lie_weighed(c, "SE3(.2", &alpha));
    CHECK_ERROR(c, "from 0 to 1");
    CHECK(!eqnn_lie_weighed(c, "(.2)", &alpha));
    CHECK_ERROR(c, "not known");
    CHECK(!eqnn_lie_weighed(c, NULL, &alpha));
    CHECK_ERROR(c, "the name is missing");
    CHECK(!eqnn_lie_weighed(c, "SO(3)", NULL));
    CHECK_ERROR(c, "the place for alpha is missing");
}

/* ---- the two functions of one number that rotations need ------------------------------------- */

/* A(x) = acos(x)/sqrt(1 - x^2): (1 - x^2) A^(n+1) = (2n+1) x A^(n) + n^2 A^(n-1), for n = 0 with -1
   in the place of the last term. */
TEST(arc_solves_its_equation)
{
    eqnn_ctx *c = test_context();
    const double at[6] = { 0, 0.05, 0.3, 0.7, 0.99, 1 };
    eqnn_tensor *x = eqnn_from_double(c, 1, 6, at), *f[10];
    int orders = sizeof(eqnn_real) == 8 ? 8 : 3;
    for (int n = 0; n <= orders; n++) f[n] = eqnn_map(x, EQNN_ARC, 0, n);
    for (int i = 0; i < 6; i++) {
        double w = eqnn_at(x, 0, i), s = sqrt(1 - w * w);
        if (i < 5) CHECK_NEAR(eqnn_at(f[0], 0, i), acos(w) / s, test_eps(4e-15, 1e-6));
        for (int n = 0; n < orders; n++) {
            double right = (2 * n + 1) * w * eqnn_at(f[n], 0, i);
            right += n ? n * n * eqnn_at(f[n - 1], 0, i) : -1;
            double left = (1 - w * w) * eqnn_at(f[n + 1], 0, i);
            CHECK_NEAR(left / fabs(eqnn_at(f[n], 0, 0)), right / fabs(eqnn_at(f[n], 0, 0)),
                       test_eps(1e-13, 1e-5));
        }
    }
    CHECK_NEAR(eqnn_at(f[0], 0, 5), 1, test_eps(1e-15, 1e-7));
    CHECK(isnan(eqnn_value(eqnn_map(eqnn_full(c, 1, 1, -0.5), EQNN_ARC, 0, 0))));
}

/* f(x) = sin(sqrt x)/sqrt x: x f^(n+2) + (n + 3/2) f^(n+1) + f^(n)/4 = 0 */
TEST(sinc_root_solves_its_equation)
{
    eqnn_ctx *c = test_context();
    const double at[9] = { -4, 0, 1e-6, 0.4, 0.6, 3, 9.8, 40, 400 };
    eqnn_tensor *x = eqnn_from_double(c, 1, 9, at), *f[10];
    for (int n = 0; n < 10; n++) f[n] = eqnn_map(x, EQNN_SINC_ROOT, 0, n);
    for (int i = 0; i < 9; i++) {
        double t = eqnn_at(x, 0, i), r = sqrt(t);
        if (t > 0) CHECK_NEAR(eqnn_at(f[0], 0, i), sin(r) / r, test_eps(1e-15, 1e-7));
        for (int n = 0; n < 8; n++) {
            double size = eqnn_at(f[n], 0, 1), sum = t * eqnn_at(f[n + 2], 0, i);
            sum += (n + 1.5) * eqnn_at(f[n + 1], 0, i) + eqnn_at(f[n], 0, i) / 4;
            CHECK_NEAR(sum / size, 0, test_eps(1e-13, 3e-6));
        }
    }
}

/* ---- elements -------------------------------------------------------------------------------- */

TEST(laws_of_groups)
{
    double tolerance = test_eps(1e-13, 2e-5);
    for (int k = 0; names[k]; k++) {
        eqnn_ctx *c = test_context();
        const eqnn_lie *g = eqnn_lie_make(c, names[k]);
        eqnn_tensor *u = elements(c, g, 6), *v = elements(c, g, 6), *w = elements(c, g, 6);
        eqnn_tensor *x = points_of(c, g, 6), *uv = eqnn_lie_product(g, u, v);
        eqnn_tensor *vw = eqnn_lie_product(g, v, w), *inverse = eqnn_lie_inverse(g, u);
        CHECK_SAME(eqnn_lie_product(g, uv, w), eqnn_lie_product(g, u, vw), tolerance);
        CHECK_SAME(eqnn_lie_log(g, eqnn_lie_product(g, inverse, u)),
                   eqnn_zeros(c, 6, eqnn_lie_dim(g)), tolerance);
        CHECK_SAME(eqnn_lie_act(g, uv, x), eqnn_lie_act(g, u, eqnn_lie_act(g, v, x)), tolerance);
        CHECK_SAME(eqnn_lie_act(g, inverse, eqnn_lie_act(g, u, x)), x, tolerance);
        CHECK_SAME(eqnn_lie_log(g, inverse), eqnn_neg(eqnn_lie_log(g, u)), tolerance);
        CHECK_OK(c);
    }
}

/* exp is the flow of its algebra: exp(2a) = exp(a) exp(a), and its slope at 0 acts as a does. */
TEST(exp_is_a_flow)
{
    for (int k = 0; names[k]; k++) {
        eqnn_ctx *c = test_context();
        const eqnn_lie *g = eqnn_lie_make(c, names[k]);
        eqnn_tensor *a = coordinates(c, g, 5), *u = eqnn_lie_exp(g, a);
        eqnn_tensor *x = points_of(c, g, 5);
        CHECK_SAME(eqnn_lie_act(g, eqnn_lie_exp(g, eqnn_scale(a, 2)), x),
                   eqnn_lie_act(g, eqnn_lie_product(g, u, u), x), test_eps(1e-13, 2e-5));
        CHECK_OK(c);
    }
}

TEST(log_undoes_exp)
{
    const double below[9] = { 0, 1e-9, 1e-4, 0.07, 1, 3, 3.1, 3.1405, 3.14159165 };
    int angles = sizeof(eqnn_real) == 8 ? 9 : 8;
    for (int k = 0; names[k]; k++) {
        eqnn_ctx *c = test_context();
        const eqnn_lie *g = eqnn_lie_make(c, names[k]);
        int turns = strstr(names[k], "SO(3)") || strstr(names[k], "SE(3)") ? 3 : 1;
        int first = !strcmp(names[k], "RxSO(2)"), n = eqnn_lie_dim(g);
        for (int i = 0; i < angles; i++) {
            double v[6] = { 0.7, -0.4, 0.3, 1.2, -0.8, 0.5 }, size = 0;
            for (int j = 0; j < turns; j++) size += v[first + j] * v[first + j];
            for (int j = 0; j < turns; j++) v[first + j] *= below[i] / sqrt(size);
            eqnn_tensor *a = eqnn_from_double(c, 1, n, v);
            CHECK_SAME(eqnn_lie_log(g, eqnn_lie_exp(g, a)), a, test_eps(1e-12, 2e-6));
        }
    }
}

/* Beyond pi the principal logarithm: w (1 - 2 pi/|w|). */
TEST(log_is_the_principal_one)
{
    eqnn_ctx *c = test_context();
    const eqnn_lie *g = eqnn_lie_make(c, "SO3");
    const double w[3] = { 2, -3, 1.5 };
    eqnn_tensor *a = eqnn_from_double(c, 1, 3, w), *log = eqnn_lie_log(g, eqnn_lie_exp(g, a));
    CHECK_SAME(log, eqnn_scale(a, 1 - 2 * pi / sqrt(15.25)), test_eps(1e-13, 1e-5));
}

/* exp's matrix against the series of the matrix exponential, for angles up to 6. */
static void series_of(const double *A, int n, double *E)
{
    double term[16] = { 0 }, next[16];
    for (int i = 0; i < n * n; i++) E[i] = term[i] = i % (n + 1) == 0;
    for (int k = 1; k < 60; k++) {
        for (int i = 0; i < n; i++)
            for (int j = 0; j < n; j++) {
                next[i * n + j] = 0;
                for (int m = 0; m < n; m++)
                    next[i * n + j] += term[i * n + m] * A[m * n + j] / k;
            }
        for (int i = 0; i < n * n; i++) E[i] += term[i] = next[i];
    }
}

TEST(exp_against_the_series)
{
    for (int i = 0; i < 12; i++) {
        eqnn_ctx *c = test_context();
        const eqnn_lie *g = eqnn_lie_make(c, "SE(3)");
        double s = 0.5 * i / sqrt(0.74), w[6] = { 0.7 * s, -0.3 * s, 0.4 * s, 1, -2, 0.5 }, E[16];
        double A[16] = { 0, -w[2], w[1], w[3], w[2], 0, -w[0], w[4], -w[1], w[0], 0, w[5] };
        series_of(A, 4, E);
        eqnn_tensor *u = eqnn_lie_exp(g, eqnn_from_double(c, 1, 6, w));
        CHECK_SAME(eqnn_lie_matrix(g, u), eqnn_from_double(c, 1, 16, E), test_eps(1e-13, 2e-6));
    }
}

/* log(exp(ea) exp(eb)) differs from the series to order k by O(e^(k+1)). */
TEST(baker_campbell_hausdorff)
{
    static const char *const curved[] = { "SE(2)", "SO(3)", "SE(3)" };
    if (sizeof(eqnn_real) == 4) return;
    for (int k = 0; k < 3; k++) {
        eqnn_ctx *c = test_context();
        const eqnn_lie *g = eqnn_lie_make(c, curved[k]);
        eqnn_tensor *a = coordinates(c, g, 3), *b = coordinates(c, g, 3);
        for (int order = 1; order <= 4; order++) {
            double error[2];
            for (int i = 0; i < 2; i++) {
                double e = i ? 0.01 : 0.02;
                eqnn_tensor *ea = eqnn_scale(a, e), *eb = eqnn_scale(b, e);
                eqnn_tensor *u = eqnn_lie_exp(g, ea), *v = eqnn_lie_exp(g, eb);
                eqnn_tensor *exact = eqnn_lie_log(g, eqnn_lie_product(g, u, v));
                exact = eqnn_sub(exact, eqnn_lie_bch(g, ea, eb, order));
                error[i] = sqrt(eqnn_value(eqnn_sum(eqnn_square(exact))));
            }
            CHECK(fabs(log2(error[0] / error[1]) - (order + 1)) < 0.3);
        }
    }
}

/* ---- lifts ----------------------------------------------------------------------------------- */

/* Where the lift's element takes the point from: the origin of the point's orbit. */
static eqnn_tensor *origin_of(const eqnn_lie *g, eqnn_tensor *x, eqnn_tensor *q)
{
    const char *name = eqnn_lie_name(g);
    eqnn_ctx *c = eqnn_context(x);
    int n = eqnn_rows(x), d = eqnn_lie_point_dim(g);
    if (!strncmp(name, "SO", 2)) return eqnn_concat(q, eqnn_zeros(c, n, d - 1));
    if (!strcmp(name, "RxSO(2)")) return eqnn_concat(eqnn_full(c, n, 1, 1), eqnn_zeros(c, n, 1));
    if (!strcmp(name, "Rx")) return q;
    if (!strcmp(name, "Rx_published")) return eqnn_concat(eqnn_cos(q), eqnn_sin(q));
    if (!strcmp(name, "RxSQ")) return eqnn_full(c, n, d, 1);
    if (!strcmp(name, "SQ")) return eqnn_concat(eqnn_exp(q), eqnn_exp(q));
    if (!strcmp(name, "Tx(3)")) return eqnn_concat(eqnn_zeros(c, n, 1), q);
    if (!strcmp(name, "Ty(2)")) return eqnn_concat(q, eqnn_zeros(c, n, 1));
    return eqnn_zeros(c, n, d);
}

TEST(lifts_reach_their_points)
{
    for (int k = 0; names[k]; k++)
        for (int n = 0; n <= 20; n += n < 1 ? 1 : 19) {
            eqnn_ctx *c = test_context();
            const eqnn_lie *g = eqnn_lie_make(c, names[k]);
            eqnn_tensor *x = points_of(c, g, n), *u, *q;
            int samples = eqnn_lie_draws(g) ? 3 : 1;
            CHECK(eqnn_lie_lift(g, x, "lift", samples, &u, &q));
            CHECK(eqnn_rows(u) == n * samples && eqnn_cols(u) == eqnn_lie_cols(g));
            CHECK(eqnn_cols(q) == eqnn_lie_q_dim(g));
            eqnn_tensor *all = eqnn_repeat(x, samples), *from = origin_of(g, all, q);
            CHECK_SAME(eqnn_lie_act(g, u, from), all, test_eps(1e-14, 2e-6));
        }
}

/* Beside the negative axis, where the shortest rotation has no limit: the point is reached, and the
   lift's derivative is no larger than elsewhere. */
TEST(lifts_beside_the_negative_axis)
{
    eqnn_ctx *c = test_context();
    const eqnn_lie *g = eqnn_lie_make(c, "SO(3)");
    for (double off = 0; off < 0.5; off = off * 10 + 1e-6) {
        double at[3] = { -1, off, -off / 2 };
        eqnn_tensor *x = eqnn_from_double(c, 1, 3, at), *u, *q, *dx;
        eqnn_lie_lift(g, x, "lift", 1, &u, &q);
        CHECK_SAME(eqnn_lie_act(g, u, origin_of(g, x, q)), x, test_eps(1e-14, 2e-6));
        dx = eqnn_grad(eqnn_sum(eqnn_matmul(u, test_normal(c, 4, 1))), x);
        CHECK(eqnn_value(eqnn_norm(dx)) < 20);
    }
}

/* Chi-square of 16 cells; of 15 degrees of freedom it exceeds 44.3 once in 10,000. Numbers are in
   [0,1). */
static double chi_square(const double *x, int n)
{
    int cell[16] = { 0 };
    double sum = 0, want = n / 16.0;
    for (int i = 0; i < n; i++) cell[(int)(x[i] * 16) & 15]++;
    for (int k = 0; k < 16; k++) sum += (cell[k] - want) * (cell[k] - want) / want;
    return sum;
}

enum { MANY = 4000 };

/* The turn that a lift adds about its point is even; of SE(3) the angle's law is 1 - cos. The two
   points are treated differently by SO(3)'s lift. */
TEST(lifts_are_even)
{
    static const char *const turned[] = { "SE(2)", "SO(3)", "SE(3)" };
    for (int k = 0; k < 3; k++)
        for (int side = -1; side <= 1; side += 2) {
            eqnn_ctx *c = test_context();
            const eqnn_lie *g = eqnn_lie_make(c, turned[k]);
            double at[3] = { side * 1.3, 0.1, -0.05 }, x[MANY];
            int d = eqnn_lie_point_dim(g);
            eqnn_tensor *point = eqnn_from_double(c, 1, d, at), *u, *v, *q;
            eqnn_tensor *none = eqnn_zeros(c, 1, eqnn_lie_draws(g));
            /* one sample of many points, as the samples of one point need not be independent */
            eqnn_lie_lift(g, eqnn_repeat(point, MANY), "lift", 1, &u, &q);
            eqnn_lie_lift_given(g, point, none, 1, &v, &q);
            eqnn_tensor *a = eqnn_lie_log(g, eqnn_lie_product(g, eqnn_lie_inverse(g, v), u));
            eqnn_tensor *angle = eqnn_norm(eqnn_slice(a, 0, k == 2 ? 3 : 1));
            for (int i = 0; i < MANY; i++) {
                double t = eqnn_at(k == 2 ? angle : a, i, 0);
                x[i] = k == 2 ? (t - sin(t)) / pi : fmod(t / (2 * pi) + 1, 1);
                x[i] = fmin(x[i], 1 - 1e-7);
            }
            double chi = chi_square(x, MANY);
            test_note("%s: chi-square %.1f", turned[k], chi);
            CHECK(chi < 44.3);
        }
}

/* A point's samples in the plane are spread evenly. */
TEST(samples_share_the_circle)
{
    eqnn_ctx *c = test_context();
    const eqnn_lie *g = eqnn_lie_make(c, "SE2");
    eqnn_tensor *u, *x = test_normal(c, 2, 2);
    eqnn_lie_lift(g, x, "lift", 5, &u, NULL);
    for (int i = 0; i < 10; i++) {
        int next = i % 5 == 4 ? i - 4 : i + 1;
        double cosine = eqnn_at(u, i, 0) * eqnn_at(u, next, 0) +
                        eqnn_at(u, i, 1) * eqnn_at(u, next, 1);
        CHECK_NEAR(cosine, cos(2 * pi / 5), test_eps(1e-14, 1e-6));
    }
    CHECK(fabs(eqnn_at(u, 0, 0) - eqnn_at(u, 5, 0)) > 1e-3); /* each point has its own turn */
}

/* ---- pairs ----------------------------------------------------------------------------------- */

/* No element can tell: pairs of v u are those of u. Where the lift has no choice, pairs of the
   moved points are those of the points. */
TEST(pairs_are_invariant)
{
    double tolerance = test_eps(1e-12, 5e-5);
    for (int k = 0; names[k]; k++) {
        eqnn_ctx *c = test_context();
        const eqnn_lie *g = eqnn_lie_make(c, names[k]);
        eqnn_tensor *x = points_of(c, g, 6), *h = elements(c, g, 1), *u, *v, *q, *p;
        const eqnn_graph *graph = complete(c, 6);
        eqnn_lie_lift(g, x, "lift", 1, &u, &q);
        eqnn_tensor *pairs = eqnn_lie_pairs(g, u, q, graph);
        CHECK(eqnn_cols(pairs) == eqnn_lie_pair_dim(g));
        CHECK_SAME(eqnn_lie_pairs(g, eqnn_lie_product(g, h, u), q, graph), pairs, tolerance);
        if (eqnn_lie_draws(g)) continue;
        eqnn_lie_lift(g, eqnn_lie_act(g, h, x), "lift", 1, &v, &p);
        CHECK_SAME(eqnn_lie_pairs(g, v, p, graph), pairs, tolerance);
    }
}

/* The way from the source to the target: v (v^-1 u) = u; target's label first. */
TEST(pairs_lead_from_source_to_target)
{
    for (int k = 0; names[k]; k++) {
        eqnn_ctx *c = test_context();
        const eqnn_lie *g = eqnn_lie_make(c, names[k]);
        eqnn_tensor *u, *q, *p, *v;
        int n = eqnn_lie_dim(g), d = eqnn_lie_q_dim(g);
        const eqnn_graph *graph = complete(c, 4);
        eqnn_lie_lift(g, points_of(c, g, 4), "lift", 1, &u, &q);
        p = eqnn_lie_pairs(g, u, q, graph);
        v = eqnn_lie_product(g, eqnn_gather(u, graph), eqnn_lie_exp(g, eqnn_slice(p, 0, n)));
        CHECK_SAME(eqnn_lie_matrix(g, v), eqnn_lie_matrix(g, eqnn_gather_target(u, graph)),
                   test_eps(1e-13, 1e-5));
        if (d == 0) continue;
        CHECK_SAME(eqnn_slice(p, n, d), eqnn_gather_target(q, graph), 0);
        CHECK_SAME(eqnn_slice(p, n + d, d), eqnn_gather(q, graph), 0);
    }
}

/* Without a group nothing is shared but the points themselves. */
TEST(trivial_group)
{
    eqnn_ctx *c = test_context();
    const eqnn_lie *g = eqnn_lie_make(c, "Trivial(2)");
    eqnn_tensor *x = test_normal(c, 3, 2), *u, *q, *p;
    CHECK(eqnn_lie_lift(g, x, "lift", 1, &u, &q) && eqnn_cols(u) == 0);
    p = eqnn_lie_pairs(g, u, q, complete(c, 3));
    CHECK(eqnn_rows(p) == 9 && eqnn_cols(p) == 4);
    CHECK_SAME(eqnn_slice_rows(eqnn_slice(p, 2, 2), 3, 3), x, 0);
    CHECK(eqnn_rows(eqnn_lie_log(g, eqnn_lie_product(g, u, u))) == 3);
    CHECK_SAME(eqnn_lie_act(g, u, x), x, 0);
    CHECK(eqnn_lie_graph(g, u, q, 0.2, NULL)->edges == 9);
}

/* Mean and squared standard error over draws of a function of the pair of two points. */
/* Those of many edges are made again in the backward pass: the same numbers and slopes as of the
   elements between, and one node of the tape. The distances of a cloud leave none. */
TEST(pairs_of_many_edges)
{
    static const char *const groups[] = { "T(2)", "SO(3)", "SE(3)" };
    for (int k = 0; k < 3; k++) {
        eqnn_ctx *c = test_context();
        const eqnn_lie *g = eqnn_lie_make(c, groups[k]);
        const eqnn_graph *graph = complete(c, 257);
        eqnn_tensor *points = test_normal(c, 257, eqnn_lie_point_dim(g)), *u, *q = NULL, *dx[2];
        eqnn_lie_cloud cloud;
        CHECK(eqnn_lie_lift(g, points, "lift", 1, &u, &q));
        size_t before = eqnn_memory_use(c).tape_nodes, made, lifted;
        eqnn_tensor *pairs = eqnn_lie_pairs(g, u, q, graph);
        made = eqnn_memory_use(c).tape_nodes;
        CHECK(made == before + 1);
        eqnn_tensor *same = eqnn_lie_log(g, eqnn_lie_between(g, u, graph));
        if (q) same = eqnn_concat(same, eqnn_gather_target(q, graph));
        if (q) same = eqnn_concat(same, eqnn_gather(q, graph));
        CHECK_SAME(pairs, same, 0);
        eqnn_tensor *weight = test_normal(c, eqnn_rows(pairs), eqnn_cols(pairs));
        for (int i = 0; i < 2; i++)
            dx[i] = eqnn_grad(eqnn_sum(eqnn_mul(weight, i ? same : pairs)), points);
        CHECK(eqnn_value(eqnn_sum(eqnn_square(dx[0]))) > 1);
        CHECK_SAME(dx[0], dx[1], test_eps(1e-12, 1e-3));
        lifted = eqnn_memory_use(c).tape_nodes;
        CHECK(eqnn_lie_lift(g, points, "lift", 1, &u, &q));
        lifted = eqnn_memory_use(c).tape_nodes - lifted;
        made = eqnn_memory_use(c).tape_nodes;
        CHECK(eqnn_lie_cloud_make(g, points, graph, "lift", 1, 0.2, &cloud));
        CHECK(eqnn_memory_use(c).tape_nodes == made + lifted + 1);
        CHECK_SAME(cloud.distance, eqnn_lie_distance(g, pairs, 0.2), test_eps(1e-14, 1e-6));
        CHECK_OK(c);
    }
}

static void mean_of_pairs(const eqnn_lie *g, eqnn_tensor *x, const char *name, double out[2])
{
    eqnn_ctx *c = eqnn_context(x);
    eqnn_tensor *u, *q, *p, *v;
    static int source[MANY], target[MANY];
    for (int i = 0; i < MANY; i++) source[i] = MANY + i, target[i] = i;
    eqnn_graph_opts o;
    memset(&o, 0, sizeof o);
    o.targets = o.sources = 2 * MANY;
    const eqnn_graph *graph = eqnn_graph_make(c, MANY, source, target, &o);
    eqnn_lie_lift(g, eqnn_repeat(x, MANY), name, 1, &u, &q);
    p = eqnn_lie_pairs(g, u, q, graph);
    v = eqnn_sum_cols(eqnn_sin(eqnn_shift(p, 0.4)));
    out[0] = out[1] = 0;
    for (int i = 0; i < MANY; i++) out[0] += eqnn_at(v, i, 0) / MANY;
    for (int i = 0; i < MANY; i++) {
        double d = eqnn_at(v, i, 0) - out[0];
        out[1] += d * d / MANY / MANY;
    }
}

/* Where the lift is drawn, moved points have the same law of pairs: the means of 4000 draws differ
   by less than 4 standard errors (6 in 100,000 seeds would fail). */
TEST(pairs_have_the_same_law)
{
    static const char *const turned[] = { "SE(2)", "SO(3)", "SE(3)" };
    for (int k = 0; k < 3; k++) {
        eqnn_ctx *c = test_context();
        const eqnn_lie *g = eqnn_lie_make(c, turned[k]);
        eqnn_tensor *x = test_normal(c, 2, eqnn_lie_point_dim(g));
        double before[2], after[2];
        mean_of_pairs(g, x, "before", before);
        mean_of_pairs(g, eqnn_lie_act(g, elements(c, g, 1), x), "after", after);
        double z = (after[0] - before[0]) / sqrt(before[1] + after[1]);
        test_note("%s: %.4f and %.4f differ by %.1f standard errors", turned[k], before[0],
                  after[0], z);
        CHECK(fabs(z) < 4);
    }
}

/* Half a turn apart: the angle is pi whichever way rounding goes, so that turning all points by one
   of the samples' angles changes nothing but their order. */
TEST(pairs_half_a_turn_apart)
{
    eqnn_ctx *c = test_context();
    const eqnn_lie *g = eqnn_lie_make(c, "SE(2)");
    for (int n = 2; n <= 4; n += 2) {
        double turn[3] = { 2 * pi / n, 0, 0 }, sum[2];
        eqnn_tensor *x = test_normal(c, 7, 2), *u;
        eqnn_tensor *h = eqnn_lie_exp(g, eqnn_from_double(c, 1, 3, turn));
        eqnn_tensor *part = test_uniform(c, 1, 1, 0, 1 / (double)n), *steps; /* of all points */
        double s[28];
        for (int i = 0; i < 7 * n; i++) s[i] = i % n / (double)n;
        steps = eqnn_add(part, eqnn_from_double(c, 7 * n, 1, s));
        eqnn_tensor *weight = eqnn_repeat(test_normal(c, 7, 1), n); /* of points: not symmetric */
        for (int moved = 0; moved < 2; moved++) {
            eqnn_lie_lift_given(g, moved ? eqnn_lie_act(g, h, x) : x, steps, n, &u, NULL);
            eqnn_tensor *p = eqnn_exp(eqnn_lie_pairs(g, u, NULL, complete(c, 7 * n)));
            p = eqnn_mul(p, eqnn_gather_target(weight, complete(c, 7 * n)));
            sum[moved] = eqnn_value(eqnn_mean(p));
        }
        CHECK_NEAR(sum[1], sum[0], test_eps(1e-13, 1e-5));
    }
}

TEST(canonical_turns)
{
    eqnn_ctx *c = test_context();
    const eqnn_lie *g = eqnn_lie_make(c, "SE(2)_canonical(4)");
    double a[3] = { 0.3, -2, 1 }; /* a shift and a quarter of a turn */
    eqnn_tensor *x = test_normal(c, 5, 2), *u, *v, *h, *p;
    h = eqnn_lie_exp(g, eqnn_from_double(c, 1, 3, a));
    CHECK(eqnn_lie_lift(g, x, "lift", 4, &u, NULL));
    CHECK(!eqnn_lie_lift(g, x, "lift", 3, &v, NULL));
    CHECK_ERROR(c, "3 samples, it takes as many as it has angles");
    p = eqnn_lie_pairs(g, u, NULL, complete(c, 20));
    v = eqnn_lie_product(g, h, u);
    CHECK_SAME(eqnn_lie_pairs(g, v, NULL, complete(c, 20)), p, test_eps(1e-13, 1e-5));
    CHECK_SAME(eqnn_lie_act(g, v, eqnn_zeros(c, 20, 2)),
               eqnn_repeat(eqnn_lie_act(g, h, x), 4), test_eps(1e-13, 1e-5));
    CHECK_SAME(eqnn_lie_product(g, eqnn_lie_inverse(g, v), v), eqnn_zeros(c, 20, 3),
               test_eps(1e-13, 1e-5));
    CHECK(!eqnn_lie_distance(g, p, 0.2));
    CHECK_ERROR(c, "has none");
    /* nothing is limited: no distance is needed for all to be neighbours, or some by chance */
    eqnn_lie_graph_opts o;
    memset(&o, 0, sizeof o);
    const eqnn_graph *all = eqnn_lie_graph(g, u, NULL, 0.2, NULL);
    CHECK(all && all->edges == 400);
    o.most = 3;
    const eqnn_graph *some = eqnn_lie_graph(g, u, NULL, 0.2, &o);
    CHECK(some && some->edges == 60);
    o.radius = 1;
    CHECK(!eqnn_lie_graph(g, u, NULL, 0.2, &o));
    CHECK_ERROR(c, "has none");
    CHECK(!eqnn_lie_graph(g, u, NULL, 2, NULL));
    CHECK_ERROR(c, "alpha is 2");
}

/* q and -q turn alike: near ones are the same whichever was drawn. */
TEST(near_elements)
{
    eqnn_ctx *c = test_context();
    const eqnn_graph *graph = complete(c, 4);
    const double signs[4] = { 1, -1, -1, 1 };
    eqnn_tensor *sign = eqnn_from_double(c, 4, 1, signs), *u, *v, *x = test_normal(c, 4, 3);
    const eqnn_lie *g = eqnn_lie_make(c, "SE(3)"), *so3 = eqnn_lie_make(c, "SO(3)");
    eqnn_tensor *q = test_normal(c, 4, 4), *turned = eqnn_mul(q, sign);
    eqnn_lie_lift_given(g, x, q, 1, &u, NULL);
    eqnn_lie_lift_given(g, x, turned, 1, &v, NULL);
    u = eqnn_lie_between(g, u, graph);
    v = eqnn_lie_between(g, v, graph);
    CHECK(eqnn_value(eqnn_sum(eqnn_square(eqnn_sub(u, v)))) > 0.1);
    CHECK_SAME(eqnn_lie_near(g, u), eqnn_lie_near(g, v), 0);
    CHECK_SAME(eqnn_lie_matrix(g, eqnn_lie_near(g, u)), eqnn_lie_matrix(g, u), 0);
    CHECK_SAME(eqnn_lie_near(so3, q), eqnn_lie_near(so3, turned), 0);
    CHECK(eqnn_lie_near(eqnn_lie_make(c, "T(3)"), x) == x);
    CHECK(!eqnn_lie_near(g, x));
    CHECK_ERROR(c, "lie_near");
}

/* Far from the origin the shift between near points keeps its digits. */
TEST(pairs_far_away)
{
    eqnn_ctx *c = test_context();
    const eqnn_lie *g = eqnn_lie_make(c, "SE(3)");
    eqnn_tensor *q = test_normal(c, 4, 4), *x = test_normal(c, 4, 3), *u, *v;
    double steps[12];
    for (int i = 0; i < 12; i++) steps[i] = floor(eqnn_at(x, i / 3, i % 3) * 64) / 64;
    x = eqnn_from_double(c, 4, 3, steps); /* exact in binary, also after the shift */
    eqnn_lie_lift_given(g, x, q, 1, &u, NULL);
    eqnn_lie_lift_given(g, eqnn_shift(x, 4096), q, 1, &v, NULL);
    const eqnn_graph *graph = complete(c, 4);
    CHECK_SAME(eqnn_lie_pairs(g, v, NULL, graph), eqnn_lie_pairs(g, u, NULL, graph), 0);
}

TEST(distances)
{
    eqnn_ctx *c = test_context();
    const double row[6] = { 0.3, 0.4, 0, 1, 2, 2 };
    eqnn_tensor *se3 = eqnn_from_double(c, 1, 6, row), *se2 = eqnn_slice(se3, 3, 3);
    eqnn_tensor *so2 = eqnn_from_double(c, 1, 3, row + 3);
    const double near_pi[3] = { 0.5, 3, -3 }, apart[3] = { 0.5, 1, 2 };
    eqnn_tensor *rx = eqnn_from_double(c, 1, 3, near_pi), *r = eqnn_from_double(c, 1, 3, apart);
    const double alpha[3] = { 0, 1, 0.25 };
    for (int k = 0; k < 3; k++) {
        double a = alpha[k], b = 1 - a, tolerance = test_eps(1e-14, 1e-6);
        CHECK_NEAR(eqnn_value(eqnn_lie_distance(eqnn_lie_make(c, "SE3"), se3, a)),
                   a * 0.5 + b * 3, tolerance);
        CHECK_NEAR(eqnn_value(eqnn_lie_distance(eqnn_lie_make(c, "SE2"), se2, a)),
                   a * 1 + b * sqrt(8), tolerance);
        CHECK_NEAR(eqnn_value(eqnn_lie_distance(eqnn_lie_make(c, "SO2"), r, a)),
                   a * 0.5 + b / 3.001, tolerance);
        CHECK_NEAR(eqnn_value(eqnn_lie_distance(eqnn_lie_make(c, "Rx_published"), rx, a)),
                   a * 0.5 + b * (2 * pi - 6), tolerance);
        CHECK_NEAR(eqnn_value(eqnn_lie_distance(eqnn_lie_make(c, "T3"), so2, a)), a * 3,
                   tolerance);
        CHECK_NEAR(eqnn_value(eqnn_lie_distance(eqnn_lie_make(c, "Trivial3"), se3, a)),
                   b * sqrt(0.49 + 2.56 + 4), tolerance);
        CHECK_NEAR(eqnn_value(eqnn_lie_distance(eqnn_lie_make(c, "RxSQ"),
                                                eqnn_slice(se3, 0, 2), a)),
                   a * 0.4 + b * 0.3, tolerance);
    }
}

TEST(distances_are_symmetric)
{
    for (int k = 0; names[k]; k++) {
        eqnn_ctx *c = test_context();
        const eqnn_lie *g = eqnn_lie_make(c, names[k]);
        eqnn_tensor *u, *q, *d;
        eqnn_lie_lift(g, points_of(c, g, 6), "lift", 1, &u, &q);
        d = eqnn_reshape(eqnn_lie_distance(g, eqnn_lie_pairs(g, u, q, complete(c, 6)), 0.3), 6, 6);
        CHECK_SAME(d, eqnn_transpose(d), test_eps(1e-13, 1e-5));
        for (int i = 0; i < 6; i++) CHECK_NEAR(eqnn_at(d, i, i), 0, test_eps(1e-14, 1e-6));
        CHECK(eqnn_at(d, 0, 1) > 0.01);
    }
}

/* ---- derivatives ----------------------------------------------------------------------------- */

typedef struct pair_case { const eqnn_lie *g; int exp; } pair_case;

/* Pairs of lifted points, and their distances where those are smooth; or log(h exp(a)). */
static eqnn_tensor *f_pairs(eqnn_tensor *const *x, int n, void *user)
{
    const pair_case *p = (const pair_case *)user;
    eqnn_tensor *u, *q;
    (void)n;
    if (p->exp) {
        eqnn_tensor *h = eqnn_lie_exp(p->g, x[1]);
        return eqnn_lie_log(p->g, eqnn_lie_product(p->g, h, eqnn_lie_exp(p->g, x[0])));
    }
    eqnn_lie_lift_given(p->g, x[0], x[1], 1, &u, &q);
    return eqnn_lie_pairs(p->g, u, q, complete(eqnn_context(x[0]), eqnn_rows(x[0])));
}

/* Small turns, so that no step of a difference jumps from pi to -pi. */
static eqnn_tensor *small_draws(eqnn_ctx *c, const eqnn_lie *g, int n)
{
    double row[4] = { 0, 0, 0, 0 };
    if (eqnn_lie_draws(g) == 4) row[0] = 1;
    eqnn_tensor *draws = test_uniform(c, n, eqnn_lie_draws(g), 0, 0.2);
    return eqnn_detach(eqnn_add(draws, eqnn_from_double(c, 1, eqnn_lie_draws(g), row)));
}

TEST(derivatives_of_pairs)
{
    for (int k = 0; names[k]; k++) {
        eqnn_ctx *c = test_context();
        pair_case p = { eqnn_lie_make(c, names[k]), 0 };
        eqnn_tensor *x[2], *twice[3];
        int n = eqnn_lie_draws(p.g) ? 2 : 1; /* of draws as well */
        x[0] = points_of(c, p.g, 3);
        x[1] = small_draws(c, p.g, 3);
        CHECK_DERIVATIVES_OF(f_pairs, x, n, &p, 2);
        twice[0] = twice[1] = eqnn_slice_rows(x[0], 0, 1); /* coincident points */
        twice[2] = eqnn_slice_rows(x[0], 1, 1);
        x[0] = eqnn_detach(eqnn_stack(twice, 3));
        CHECK_DERIVATIVES_OF(f_pairs, x, n, &p, 2);
    }
}

/* At the identity, in general and close to pi. */
TEST(derivatives_of_exp_and_log)
{
    const double size[3] = { 0, 1.1, 3.1 };
    for (int k = 0; names[k]; k++)
        for (int i = 0; i < 3; i++) {
            eqnn_ctx *c = test_context();
            pair_case p = { eqnn_lie_make(c, names[k]), 1 };
            double v[6] = { 0.48, -0.6, 0.64, 0.9, -0.3, 0.2 };
            int n = eqnn_lie_dim(p.g);
            if (n == 1) v[0] = 1;
            if (n == 2) v[1] = 1; /* RxSO(2): angle */
            if (n == 3 && eqnn_lie_point_dim(p.g) == 2) v[0] = 1; /* SE(2) */
            eqnn_tensor *x[2];
            x[0] = eqnn_detach(eqnn_scale(eqnn_from_double(c, 1, n, v), size[i]));
            x[1] = eqnn_zeros(c, 1, n);
            CHECK_DERIVATIVES_OF(f_pairs, x, 2, &p, 2);
        }
}

/* Everything is finite where a direction has no value: at the origin, at coincident points, half a
   turn apart; to the second derivative. */
TEST(finite_everywhere)
{
    const double at[10] = { 0, 0, 0, 0, 1, 0, -1, 0, -1, 0 };
    const double at3[18] = { 0, 0, 0, 0, 0, 0, 1, 0, 0, -1, 0, 0, -1, 0, 0, -1, 1e-9, 0 };
    for (int k = 0; names[k]; k++) {
        eqnn_ctx *c = test_context();
        const eqnn_lie *g = eqnn_lie_make(c, names[k]);
        int d = eqnn_lie_point_dim(g), n = d == 3 ? 6 : 5;
        eqnn_tensor *x = eqnn_from_double(c, n, d, d == 3 ? at3 : at), *u, *q, *dx;
        if (strstr(names[k], "SQ")) x = eqnn_detach(eqnn_abs(x));
        eqnn_tensor *draws = eqnn_full(c, n, eqnn_lie_draws(g), 0.25);
        eqnn_lie_lift_given(g, x, draws, 1, &u, &q);
        eqnn_tensor *p = eqnn_lie_pairs(g, u, q, complete(c, n));
        eqnn_tensor *D = eqnn_lie_distance(g, p, 0.2);
        eqnn_tensor *y = eqnn_add(eqnn_sum(eqnn_sin(p)), eqnn_sum(eqnn_square(D)));
        dx = eqnn_grad(y, x);
        CHECK(test_finite(p) && test_finite(D) && test_finite(dx));
        CHECK(test_finite(eqnn_grad(eqnn_sum(eqnn_square(dx)), x)));
    }
}

/* Exactly half a turn: value, first and second derivative. */
TEST(finite_at_pi)
{
    eqnn_ctx *c = test_context();
    const double half[7] = { 0, 0.6, 0, 0.8, 1, 2, 3 }, flat[4] = { -1, 0, 1, 2 };
    for (int k = 0; k < 3; k++) {
        const eqnn_lie *g = eqnn_lie_make(c, k == 0 ? "SE(3)" : k == 1 ? "SO(3)" : "SE(2)");
        eqnn_tensor *u = eqnn_from_double(c, 1, eqnn_lie_cols(g), k == 2 ? flat : half);
        eqnn_tensor *a = eqnn_lie_log(g, u), *du = eqnn_grad(eqnn_sum(eqnn_square(a)), u);
        CHECK_NEAR(eqnn_value(eqnn_norm(eqnn_slice(a, 0, k == 2 ? 1 : 3))), pi, 1e-6);
        CHECK(test_finite(du) && test_finite(eqnn_grad(eqnn_sum(eqnn_square(du)), u)));
        CHECK_SAME(eqnn_lie_matrix(g, eqnn_lie_exp(g, a)), eqnn_lie_matrix(g, u),
                   test_eps(1e-14, 2e-6));
    }
}

/* ---- a user's group -------------------------------------------------------------------------- */

/* Turns and scales of the plane by their matrices: what RxSO(2) is by complex numbers. */
static eqnn_tensor *user_exp(const eqnn_lie *g, eqnn_tensor *a)
{
    (void)g;
    eqnn_tensor *scale = eqnn_exp(eqnn_slice(a, 0, 1)), *angle = eqnn_slice(a, 1, 1), *m[4];
    m[0] = m[3] = eqnn_mul(scale, eqnn_cos(angle));
    m[2] = eqnn_mul(scale, eqnn_sin(angle));
    m[1] = eqnn_neg(m[2]);
    return eqnn_concat_n(m, 4);
}

static eqnn_tensor *user_log(const eqnn_lie *g, eqnn_tensor *u)
{
    (void)g;
    eqnn_tensor *c = eqnn_slice(u, 0, 1), *s = eqnn_slice(u, 2, 1), *square;
    square = eqnn_add(eqnn_square(c), eqnn_square(s));
    return eqnn_concat(eqnn_scale(eqnn_log(square), 0.5), eqnn_atan2(s, c));
}

static eqnn_tensor *user_lift(const eqnn_lie *g, eqnn_tensor *x, eqnn_tensor *draws,
                              eqnn_tensor **q)
{
    eqnn_tensor *m[4];
    (void)g, (void)draws, (void)q;
    m[0] = m[3] = eqnn_slice(x, 0, 1);
    m[2] = eqnn_slice(x, 1, 1);
    m[1] = eqnn_neg(m[2]);
    return eqnn_concat_n(m, 4);
}

static eqnn_lie_opts user_opts(void)
{
    eqnn_lie_opts o;
    memset(&o, 0, sizeof o);
    o.point_dim = o.lie_dim = 2;
    o.alpha_first = 1;
    o.exp = user_exp;
    o.log = user_log;
    o.lift = user_lift;
    return o;
}

TEST(own_group)
{
    eqnn_ctx *c = test_context();
    eqnn_lie_opts o = user_opts();
    static const int mine[1];
    o.user = mine;
    const eqnn_lie *g = eqnn_lie_of(c, "mine", &o), *h = eqnn_lie_make(c, "RxSO(2)");
    eqnn_tensor *x = test_normal(c, 5, 2), *u, *v, *p, *q;
    const eqnn_graph *graph = complete(c, 5);
    double tolerance = test_eps(1e-13, 2e-5);
    CHECK(eqnn_lie_make(c, "mine") == g);
    CHECK(eqnn_lie_user(g) == mine && !eqnn_lie_user(h));
    CHECK(eqnn_lie_lift(g, x, "lift", 1, &u, NULL));
    CHECK(eqnn_lie_lift(h, x, "lift", 1, &v, NULL));
    p = eqnn_lie_pairs(g, u, NULL, graph);
    q = eqnn_lie_pairs(h, v, NULL, graph);
    CHECK_SAME(p, q, tolerance);
    CHECK_SAME(eqnn_lie_distance(g, p, 0.3), eqnn_lie_distance(h, q, 0.3), tolerance);
    CHECK_SAME(eqnn_lie_matrix(g, u), eqnn_lie_matrix(h, v), tolerance);
    CHECK_SAME(eqnn_lie_matrix(g, eqnn_lie_inverse(g, u)),
               eqnn_lie_matrix(h, eqnn_lie_inverse(h, v)), 10 * tolerance);
}

/* A log with a column too many. */
static eqnn_tensor *wide_log(const eqnn_lie *g, eqnn_tensor *u)
{
    (void)g;
    return eqnn_slice(u, 0, 3);
}

TEST(own_group_refused)
{
    eqnn_ctx *c = test_context();
    eqnn_lie_opts o = user_opts();
    o.lift = NULL;
    CHECK(!eqnn_lie_of(c, "mine", &o));
    CHECK_ERROR(c, "needs exp, log and lift");
    o = user_opts();
    o.cols = 3;
    CHECK(!eqnn_lie_of(c, "mine", &o));
    CHECK_ERROR(c, "no matrices");
    o = user_opts();
    o.alpha_cols = 2;
    CHECK(!eqnn_lie_of(c, "mine", &o));
    CHECK_ERROR(c, "alpha columns");
    o = user_opts();
    CHECK(eqnn_lie_of(c, "mine", &o) != NULL);
    CHECK(!eqnn_lie_of(c, "mine", &o));
    CHECK_ERROR(c, "made already");
    CHECK(!eqnn_lie_bracket(eqnn_lie_make(c, "mine"), test_normal(c, 1, 2), test_normal(c, 1, 2)));
    CHECK_ERROR(c, "has none");
    o.log = wide_log;
    const eqnn_lie *g = eqnn_lie_of(c, "wide", &o);
    eqnn_tensor *x = test_normal(c, 3, 2), *u;
    CHECK(eqnn_lie_lift(g, x, "lift", 1, &u, NULL));
    CHECK(!eqnn_lie_pairs(g, u, NULL, complete(c, 3)));
    CHECK_ERROR(c, "lie_log of wide: coordinates have 2 columns, got [9,3]");
}

TEST(bad_input)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *u, *q, *x = test_normal(c, 4, 3);
    const eqnn_lie *g = eqnn_lie_make(c, "SO(3)");
    static const char *const wrong[] = { "SO(4)", "T",     "T(0)", "Trivial(99)", "SE", "",
                                         "Rx(3)", "Ty(1)", "T(7",  "T2)",         "SE()2" };
    for (int k = 0; k < 11; k++) {
        CHECK(!eqnn_lie_make(c, wrong[k]));
        CHECK_ERROR(c, "is not known; known are");
    }
    CHECK(eqnn_lie_make(c, "SO(3)") == g);
    CHECK(!eqnn_lie_log(g, x));
    CHECK_ERROR(c, "lie_log of SO(3): elements have 4 columns, got [4,3]");
    CHECK(!eqnn_lie_lift(g, test_normal(c, 4, 2), "lift", 1, &u, &q));
    CHECK_ERROR(c, "points have 3 columns");
    CHECK(!eqnn_lie_lift(g, x, NULL, 1, &u, &q));
    CHECK_ERROR(c, "need a name");
    CHECK(!eqnn_lie_lift(g, x, "lift", 0, &u, &q) && !u && !q);
    CHECK_ERROR(c, "0 samples, it takes 1 or more");
    CHECK(!eqnn_lie_lift(eqnn_lie_make(c, "T3"), x, "lift", 2, &u, &q));
    CHECK_ERROR(c, "2 samples, it takes 1");
    CHECK(!eqnn_lie_lift_given(g, x, test_normal(c, 5, 1), 1, &u, &q));
    CHECK_ERROR(c, "5 rows of random numbers for 4 points");
    CHECK(!eqnn_lie_distance(g, test_normal(c, 2, 5), 1.5));
    CHECK_ERROR(c, "alpha is 1.5");
    CHECK(!eqnn_lie_distance(g, test_normal(c, 2, 5), NAN));
    CHECK_ERROR(c, "not in 0..1");
    eqnn_lie_lift(g, x, "lift", 1, &u, &q);
    CHECK(!eqnn_lie_pairs(g, u, NULL, complete(c, 4)));
    CHECK_ERROR(c, "no orbits");
    CHECK(!eqnn_lie_pairs(g, u, q, complete(c, 3)));
    CHECK_ERROR(c, "");
    CHECK(!eqnn_lie_product(g, eqnn_slice_rows(u, 0, 2), eqnn_slice_rows(u, 0, 3)));
    CHECK_ERROR(c, "2 and 3 rows");
    CHECK(!eqnn_lie_bch(g, x, x, 5));
    CHECK_ERROR(c, "order 5");
    CHECK(!eqnn_lie_exp(NULL, x) && !eqnn_lie_exp(g, NULL) && !eqnn_lie_pairs(g, NULL, q, NULL));
}

/* ---- neighbours ------------------------------------------------------------------------------ */

static int edges_into(const eqnn_graph *g, int node)
{
    return g->first[node + 1] - g->first[node];
}

TEST(neighbours_by_distance)
{
    eqnn_ctx *c = test_context();
    const eqnn_lie *g = eqnn_lie_make(c, "SE(3)");
    eqnn_tensor *u, *d;
    eqnn_lie_lift(g, test_normal(c, 10, 3), "lift", 2, &u, NULL);
    d = eqnn_lie_distance(g, eqnn_lie_pairs(g, u, NULL, complete(c, 20)), 0.2);
    eqnn_lie_graph_opts o;
    memset(&o, 0, sizeof o);
    o.radius = 1.5;
    const eqnn_graph *ball = eqnn_lie_graph(g, u, NULL, 0.2, &o);
    for (int i = 0; i < 20; i++) {
        int within = 0;
        for (int j = 0; j < 20; j++) within += eqnn_at(d, i * 20 + j, 0) < 1.5;
        CHECK(edges_into(ball, i) == within);
    }
    memset(&o, 0, sizeof o);
    o.nearest = 4;
    const eqnn_graph *nearest = eqnn_lie_graph(g, u, NULL, 0.2, &o);
    for (int i = 0; i < 20; i++) {
        double farthest = 0;
        int nearer = 0;
        CHECK(edges_into(nearest, i) == 4);
        for (int e = nearest->first[i]; e < nearest->first[i + 1]; e++)
            farthest = fmax(farthest, eqnn_at(d, i * 20 + nearest->source[e], 0));
        for (int j = 0; j < 20; j++) nearer += eqnn_at(d, i * 20 + j, 0) < farthest;
        CHECK(nearer == 3);
    }
    memset(&o, 0, sizeof o);
    o.fill = 0.25;
    CHECK(eqnn_lie_graph(g, u, NULL, 0.2, &o)->edges == 100);
    CHECK(eqnn_lie_graph(g, u, NULL, 0.2, NULL)->edges == 400);
}

/* At random, but the same again; other nodes and other names draw other ones. */
/* Zero is the default; what makes no sense is not. */
TEST(bad_neighbours)
{
    eqnn_ctx *c = test_context();
    const eqnn_lie *g = eqnn_lie_make(c, "T(2)");
    eqnn_tensor *u = test_normal(c, 3, 2);
    const eqnn_lie_graph_opts bad[] = { { .radius = -1 }, { .radius = NAN }, { .fill = -0.1 },
                                        { .fill = NAN }, { .fill = 3 }, { .nearest = -1 },
                                        { .most = -1 } };
    for (int i = 0; i < 7; i++) {
        CHECK(!eqnn_lie_graph(g, u, NULL, 0.5, &bad[i]));
        CHECK_ERROR(c, "lie_graph: radius");
    }
    const eqnn_lie_graph_opts none = { .examples = -1 };
    CHECK(!eqnn_lie_graph(g, u, NULL, 0.5, &none));
    CHECK_ERROR(c, "lie_graph: .examples is -1");
    const eqnn_farthest_opts few[2] = { { .count = -1 }, { .examples = -1 } };
    for (int i = 0; i < 2; i++) {
        CHECK(!eqnn_lie_farthest(g, u, NULL, 0.5, 0.5, &few[i]));
        CHECK_ERROR(c, i ? "farthest: .examples is -1" : "farthest: .count is -1");
    }
    CHECK(eqnn_lie_graph(g, u, NULL, 0.5, NULL)->edges == 9);
}

TEST(some_neighbours)
{
    eqnn_ctx *c = test_context();
    const eqnn_lie *g = eqnn_lie_make(c, "T(2)");
    eqnn_tensor *x = test_normal(c, 30, 2);
    eqnn_lie_graph_opts o;
    memset(&o, 0, sizeof o);
    o.most = 5;
    const eqnn_graph *a = eqnn_lie_graph(g, x, NULL, 1, &o), *b = eqnn_lie_graph(g, x, NULL, 1, &o);
    o.name = "others";
    const eqnn_graph *other = eqnn_lie_graph(g, x, NULL, 1, &o);
    int differ = 0, rows = 0;
    CHECK(a->edges == 150 && other->edges == 150);
    const eqnn_lie_graph_opts share = { .fill = 0.35 }; /* 10.5 of 30: 11 are a third */
    CHECK(eqnn_lie_graph(g, x, NULL, 1, &share)->edges == 330);
    for (int e = 0; e < 150; e++) {
        CHECK(a->source[e] == b->source[e]);
        differ += a->source[e] != other->source[e];
        rows += a->source[e] != a->source[e % 5];
    }
    CHECK(differ > 50 && rows > 50);
    int count[30] = { 0 };
    for (int e = 0; e < 150; e++) count[a->source[e]]++;
    for (int i = 0; i < 30; i++) CHECK(count[i] < 15); /* mean 5, deviation 2 */
}

TEST(neighbours_of_examples)
{
    eqnn_ctx *c = test_context();
    const eqnn_lie *g = eqnn_lie_make(c, "SO(2)");
    const int example[7] = { 0, 0, 0, 2, 2, 2, 2 };
    eqnn_tensor *u, *q;
    eqnn_lie_lift(g, test_normal(c, 7, 2), "lift", 1, &u, &q);
    eqnn_lie_graph_opts o;
    memset(&o, 0, sizeof o);
    o.example = example;
    o.examples = 4; /* the second and the last have no points */
    const eqnn_graph *graph = eqnn_lie_graph(g, u, q, 0.2, &o);
    CHECK(graph && graph->edges == 9 + 16 && graph->examples == 4);
    for (int e = 0; graph && e < graph->edges; e++)
        CHECK(example[graph->source[e]] == example[graph->target[e]]);
    const int unsorted[7] = { 0, 1, 0, 2, 2, 2, 2 };
    o.example = unsorted;
    CHECK(!eqnn_lie_graph(g, u, q, 0.2, &o));
    CHECK_ERROR(c, "must be sorted");
    memset(&o, 0, sizeof o);
    u = eqnn_zeros(c, 0, 2);
    q = eqnn_zeros(c, 0, 1);
    CHECK(eqnn_lie_graph(g, u, q, 0.2, &o)->edges == 0);
    eqnn_tensor *p = eqnn_lie_pairs(g, u, q, complete(c, 0));
    CHECK(p && eqnn_rows(p) == 0 && eqnn_cols(p) == 3);
}

/* Each is as far from those before it as any, and distances only shrink. */
TEST(farthest_points)
{
    eqnn_ctx *c = test_context();
    const eqnn_lie *g = eqnn_lie_make(c, "SE(2)");
    eqnn_tensor *u, *d;
    eqnn_lie_lift(g, test_normal(c, 12, 2), "lift", 1, &u, NULL);
    d = eqnn_lie_distance(g, eqnn_lie_pairs(g, u, NULL, complete(c, 12)), 0.2);
    eqnn_ints *chosen = eqnn_lie_farthest(g, u, NULL, 0.2, 0.625, NULL); /* 7.5: the even 8 */
    const int *v = eqnn_ints_data(chosen);
    double last = INFINITY;
    CHECK(eqnn_ints_count(chosen) == 8 && v[0] == 0);
    for (int k = 1; k < eqnn_ints_count(chosen); k++) {
        double best = 0, mine = INFINITY;
        for (int j = 0; j < 12; j++) {
            double nearest = INFINITY;
            for (int m = 0; m < k; m++) nearest = fmin(nearest, eqnn_at(d, v[m] * 12 + j, 0));
            best = fmax(best, nearest);
            if (j == v[k]) mine = nearest;
        }
        CHECK_NEAR(mine, best, test_eps(1e-13, 1e-5));
        CHECK(mine <= last * (1 + 1e-5));
        last = mine;
    }
}

static void on_a_line(void *user, int from, int first, int n, double *out)
{
    const double *x = (const double *)user;
    for (int i = 0; i < n; i++) out[i] = fabs(x[from] - x[first + i]);
}

TEST(farthest_of_examples)
{
    eqnn_ctx *c = test_context();
    double x[9] = { 0, 1, 2, 3, 10, 5, 5, 5, 5 };
    const int example[9] = { 0, 0, 0, 0, 0, 1, 1, 1, 1 }, start[2] = { 1, 2 };
    const int want[5] = { 1, 4, 3, 7, 5 }; /* 1, then 10, then 3; of coincident points the first */
    eqnn_farthest_opts o;
    memset(&o, 0, sizeof o);
    o.example = example;
    o.start = start;
    eqnn_ints *chosen = eqnn_farthest(c, 9, 0.5, on_a_line, x, &o);
    CHECK(eqnn_ints_count(chosen) == 4); /* 2.5: 2, and 2 */
    o.count = 3;
    chosen = eqnn_farthest(c, 9, 0, on_a_line, x, &o);
    CHECK(eqnn_ints_count(chosen) == 6);
    for (int k = 0; k < 5; k++) CHECK(eqnn_ints_data(chosen)[k] == want[k]);
    o.count = 100; /* all, none twice */
    chosen = eqnn_farthest(c, 9, 0, on_a_line, x, &o);
    int seen[9] = { 0 };
    CHECK(eqnn_ints_count(chosen) == 9);
    for (int k = 0; k < 9; k++) CHECK(seen[eqnn_ints_data(chosen)[k]]++ == 0);
    o.start = NULL;
    o.name = "start";
    CHECK(eqnn_ints_count(eqnn_farthest(c, 9, 0.4, on_a_line, x, &o)) == 9);
    const int beyond[2] = { 0, 4 };
    o.start = beyond;
    CHECK(!eqnn_farthest(c, 9, 0.5, on_a_line, x, &o));
    CHECK_ERROR(c, "farthest: .name is set, but of no use beside .start");
    o.name = NULL;
    CHECK(!eqnn_farthest(c, 9, 0.5, on_a_line, x, &o));
    CHECK_ERROR(c, "example 1 of 4 nodes cannot start at 4");
    CHECK(!eqnn_farthest(c, 9, 1.5, on_a_line, x, NULL));
    CHECK_ERROR(c, "makes no sense");
    CHECK(eqnn_ints_count(eqnn_farthest(c, 0, 0.5, on_a_line, x, NULL)) == 0);
}

/* What a refusal advises knows such labels: what serves irreps of O(3) would refuse them too. */
TEST(advice_for_labels_of_matrix_groups)
{
    static const char *const advice[5] = { "use eqnn_rep_gate", "use eqnn_rep_linear",
                                           "or eqnn_rep_bilinear", "use it on invariant numbers",
                                           "use eqnn_rep_linear and eqnn_rep_gate" };
    eqnn_ctx *c = test_context();
    const eqnn_rep *r = eqnn_rep_make(c, "Scalar + 2*V", eqnn_group_make(c, "SO(3)"));
    eqnn_tensor *x = eqnn_from_rep(test_normal(c, 2, 7), r);
    for (int i = 0; i < 5; i++) {
        CHECK(!(i == 0   ? eqnn_relu(x)
                : i == 1 ? eqnn_linear(x, "a", 3, NULL)
                : i == 2 ? eqnn_mul(x, x)
                : i == 3 ? eqnn_layer_norm(x, "a", NULL)
                         : eqnn_mlp(x, "a", "3", NULL)));
        CHECK_ERROR(c, advice[i]);
    }
    eqnn_training(c, 1);
    CHECK(!eqnn_dropout(x, "a", 0.5));
    CHECK_ERROR(c, "use eqnn_irreps_dropout");
    CHECK(eqnn_label_of(eqnn_irreps_dropout(x, "a", 0.5, NULL)) == eqnn_label_of(x));
    CHECK(!eqnn_lie_make(c, NULL));
    CHECK_ERROR(c, "lie_make: the name is missing");
}

/* An option that nothing reads is refused, with what it is for. */
TEST(options_without_use)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *u = NULL, *q = NULL;
    const eqnn_lie *g = eqnn_lie_make(c, "T(2)");
    const eqnn_lie_graph_opts name = { .name = "mine" }, drawn = { .name = "mine", .most = 2 };
    CHECK(eqnn_lie_lift(g, test_normal(c, 4, 2), "lift", 1, &u, &q));
    CHECK(!eqnn_lie_graph(g, u, q, 0.2, &name));
    CHECK_ERROR(c, "lie_graph: .name is set, but of no use without .most");
    CHECK(eqnn_lie_graph(g, u, q, 0.2, &drawn) != NULL);
    eqnn_lie_opts o = user_opts(), wrong[3] = { o, o, o };
    wrong[0].normal = wrong[1].even = 1;
    wrong[2].apart = eqnn_lie_product;
    for (int i = 0; i < 3; i++) {
        CHECK(!eqnn_lie_of(c, "mine", &wrong[i]));
        CHECK_ERROR(c, i < 2 ? "has .normal or .even, but no .draws"
                             : "has .apart, but no columns .q_dim");
    }
    CHECK_OK(c);
}

TEST_MAIN
