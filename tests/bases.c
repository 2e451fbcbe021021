/* bases.c - the vectors that groups leave fixed (section 4 of eqnn_groups.h) */
#include "test.h"
#include "../eqnn_groups.h"

static const eqnn_rep *rep(eqnn_ctx *c, const char *group, const char *text)
{
    return eqnn_rep_make(c, text, group ? eqnn_group_make(c, group) : NULL);
}

static int64_t dim(eqnn_ctx *c, const char *group, const char *text)
{
    return eqnn_basis_dim(rep(c, group, text));
}

static void use(eqnn_ctx *c, eqnn_basis_method method)
{
    eqnn_basis_opts o;
    memset(&o, 0, sizeof o);
    o.method = method;
    eqnn_basis_options(c, &o);
}

static double *doubles(size_t n) { return (double *)calloc(n + 1, sizeof(double)); }

static int field_of(const eqnn_rep *r)
{
    const eqnn_group *g[8];
    int n = eqnn_rep_groups(r, g, 8), field = 1;
    for (int i = 0; i < n; i++) field += eqnn_group_complex(g[i]) && field == 1;
    return field;
}

/* P of a representation as a dense matrix, column by column. */
static double *projector(const eqnn_rep *r)
{
    size_t n = (size_t)eqnn_rep_size(r), F = (size_t)field_of(r);
    double *P = doubles(n * n * F);
    for (size_t k = 0; k < n; k++) {
        P[k * n * F + k * F] = 1;
        CHECK(eqnn_basis_project(r, P + k * n * F));
    }
    return P;
}

static double apart(const double *a, const double *b, size_t n)
{
    double most = 0;
    for (size_t i = 0; i < n; i++)
        if (!(fabs(a[i] - b[i]) <= most)) most = fabs(a[i] - b[i]);
    return most;
}

/* Largest entry of Q Q^H - 1. */
static double not_orthonormal(const double *Q, size_t rank, size_t n, size_t F)
{
    double most = 0;
    for (size_t a = 0; a < rank; a++)
        for (size_t b = 0; b <= a; b++) {
            double re = a == b ? -1 : 0, im = 0;
            for (size_t i = 0; i < n; i++) {
                const double *x = Q + (a * n + i) * F, *y = Q + (b * n + i) * F;
                re += x[0] * y[0] + (F == 2 ? x[F - 1] * y[F - 1] : 0);
                if (F == 2) im += x[0] * y[1] - x[1] * y[0];
            }
            most = fmax(most, hypot(re, im));
        }
    return most;
}

/* Largest entry of rho(g) q - q over basis vectors q and random elements, over that of rho(g) q. */
static double not_fixed(eqnn_ctx *c, const eqnn_rep *r, const double *Q, size_t rank)
{
    const eqnn_group *g[8];
    double *element[8], *y;
    const double *one[8];
    double most = 0;
    size_t n = (size_t)eqnn_rep_size(r), F = (size_t)field_of(r);
    int groups = eqnn_rep_groups(r, g, 8);
    y = doubles(n * F);
    for (int trial = 0; trial < 5; trial++) {
        for (int i = 0; i < groups; i++) {
            char name[32];
            size_t d = (size_t)eqnn_group_dim(g[i]);
            snprintf(name, sizeof name, "element %d %d", i, trial);
            one[i] = element[i] = doubles(d * d * (size_t)(1 + eqnn_group_complex(g[i])));
            CHECK(eqnn_group_sample(g[i], name, 1, element[i]));
        }
        for (size_t q = 0; q < rank; q++) {
            double size = 0;
            CHECK(eqnn_rep_apply(r, g, one, groups, Q + q * n * F, y));
            for (size_t i = 0; i < n * F; i++) size = fmax(size, fabs(y[i]));
            most = fmax(most, apart(y, Q + q * n * F, n * F) / fmax(1, size));
        }
        for (int i = 0; i < groups; i++) free(element[i]);
    }
    CHECK_OK(c);
    free(y);
    return most;
}

/* Orthonormal, and left alone by random elements; P = Q^H Q. */
static void check_basis(eqnn_ctx *c, const char *group, const char *text)
{
    const eqnn_rep *r = rep(c, group, text);
    size_t n = (size_t)eqnn_rep_size(r), F = (size_t)field_of(r), rank = (size_t)eqnn_basis_dim(r);
    double *Q = doubles(rank * n * F), *v = doubles(n * F), *w = doubles(n * F);
    CHECK(eqnn_basis_dense(r, Q));
    double orthonormal = not_orthonormal(Q, rank, n, F), fixed = not_fixed(c, r, Q, rank);
    test_note("%-12s %-28s %4d of %5d  QQ-1 %.1e  gQ-Q %.1e", group ? group : "mixed",
              text, (int)rank, (int)n, orthonormal, fixed);
    CHECK(orthonormal < 1e-10);
    CHECK(fixed < 1e-9);
    for (size_t i = 0; i < n * F; i++) v[i] = sin((double)(7 * i + 1));
    for (size_t q = 0; q < rank; q++) {
        double re = 0, im = 0;
        for (size_t i = 0; i < n; i++) {
            const double *x = Q + (q * n + i) * F, *y = v + i * F;
            re += x[0] * y[0] + (F == 2 ? x[F - 1] * y[F - 1] : 0);
            if (F == 2) im += x[0] * y[1] - x[1] * y[0];
        }
        for (size_t i = 0; i < n; i++) {
            const double *x = Q + (q * n + i) * F;
            w[i * F] += re * x[0] - (F == 2 ? im * x[F - 1] : 0);
            if (F == 2) w[i * F + 1] += re * x[1] + im * x[0];
        }
    }
    CHECK(eqnn_basis_project(r, v));
    CHECK(apart(v, w, n * F) < 1e-10);
    free(Q); free(v); free(w);
}

TEST(bases_are_orthonormal_and_fixed)
{
    static const char *const cases[][2] = {
        { "SO(3)", "V*V >> V" }, { "SO(3)", "T(5)" }, { "O(3)", "3*V + V**2 >> V**2 + 2" },
        { "SO(4)", "T(4)" }, { "SO(2)", "T(3) >> T(3)" }, { "SO(2)", "V**2 >> psi(2)" },
        { "O(3)", "V**2 >> P*V" }, { "O13", "T(1,0) >> T(2,1)" }, { "SO13p", "T(2,2)" },
        { "SO11p", "T(2) >> T(2)" }, { "Sp(2)", "T(2) >> T(2)" }, { "SL(3)", "T(2) >> V.T" },
        { "GL(2)", "T(2) >> T(2)" }, { "U(2)", "V + V.T >> V + V**2*V.T" }, { "SU(3)", "T(3)" },
        { "SU(2)", "T(4)" }, { "D(6)", "T(2) >> T(2)" }, { "C(3)", "T(3)" },
        { "S(4)", "P*V >> V**2" }, { "S(5)", "T(3)" }, { "Cube", "T(2) >> V" },
        { "RubiksCube", "V >> V" },
        { "SO(3)xS(3)", "V >> V" }, { "Real(U(2))", "V >> V" }, { "Embed(SO(2),3,0)", "V >> V**2" },
        { NULL, "V(Z(3))*V(S(4)) + V(O(3))**2" }, { NULL, "V(U(2))*V(SO(3)) >> V(U(2))*V(SO(3))" },
        { "Trivial(3)", "V >> V" }, { "Scaling(2)", "T(2) >> T(2)" }, { "DkeR3(3)", "T(3)" } };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        eqnn_ctx *c = test_context();
        check_basis(c, cases[i][0], cases[i][1]);
        CHECK_OK(c);
    }
}

/* SO(2): central binomials; SO(3): Motzkin sums; O(n): pairings; U(n): permutations; S(n): Bell. */
TEST(dimensions_by_theory)
{
    static const int so2[] = { 1, 0, 2, 0, 6, 0, 20, 0, 70 }, so3[] = { 1, 0, 1, 1, 3, 6, 15, 36 };
    static const int o4[] = { 1, 0, 1, 0, 3, 0, 15 }, bell[] = { 1, 1, 2, 5, 15, 52, 203 };
    eqnn_ctx *c = test_context();
    char text[32];
    for (int k = 0; k < 9; k++) {
        snprintf(text, sizeof text, "T(%d)", k);
        CHECK(dim(c, "SO(2)", text) == so2[k]);
        CHECK(dim(c, "SO11p", text) == so2[k]);
        if (k < 8) CHECK(dim(c, "SO(3)", text) == so3[k]);
        if (k < 7) CHECK(dim(c, "O(4)", text) == o4[k]);
        if (k < 7) CHECK(dim(c, "S(7)", text) == bell[k]);
    }
    CHECK(dim(c, "SU(2)", "T(6)") == 5);            /* a Catalan number        */
    CHECK(dim(c, "GL(4)", "T(3) >> T(3)") == 6);    /* 3!                      */
    CHECK(dim(c, "U(2)", "T(3) >> T(3)") == 5);     /* 3! less one for d = 2   */
    CHECK(dim(c, "Sp(1)", "T(6)") == 5);
    CHECK(dim(c, "SO(3)", "2*V + 1 >> 3*V + 2") == 8);
    CHECK(dim(c, "SO(5)", "T(5)") == 1);            /* Levi-Civita             */
    CHECK(dim(c, "O(5)", "T(5)") == 0);
    CHECK(dim(c, "S(3)", "T(5)") == 41);            /* less than Bell: 3 < 5   */
    CHECK_OK(c);
}

/* All methods that can solve a problem find the same space. */
TEST(methods_agree)
{
    static const struct { const char *group, *text; int methods[4]; } cases[] = {
        { "S(4)", "T(3)", { EQNN_BASIS_ORBITS, EQNN_BASIS_DENSE, EQNN_BASIS_KRYLOV, 0 } },
        { "Cube", "V >> V", { EQNN_BASIS_ORBITS, EQNN_BASIS_DENSE, EQNN_BASIS_KRYLOV, 0 } },
        { "SO(3)", "T(4)", { EQNN_BASIS_WEIGHTS, EQNN_BASIS_DENSE, EQNN_BASIS_KRYLOV, 0 } },
        { "O13", "T(2,2)", { EQNN_BASIS_WEIGHTS, EQNN_BASIS_DENSE, EQNN_BASIS_KRYLOV, 0 } },
        { "SO(2)", "psi(2)*T(3)", { EQNN_BASIS_WEIGHTS, EQNN_BASIS_DENSE, 0, 0 } },
        { "U(2)", "T(2,2)", { EQNN_BASIS_WEIGHTS, EQNN_BASIS_DENSE, EQNN_BASIS_KRYLOV, 0 } },
        { "SU(3)", "T(2,1) + V**3", { EQNN_BASIS_WEIGHTS, EQNN_BASIS_DENSE, 0, 0 } },
        { "SO(2)xS(3)", "V >> V", { EQNN_BASIS_WEIGHTS, EQNN_BASIS_DENSE, EQNN_BASIS_KRYLOV, 0 } },
        { "D(4)", "T(4)", { EQNN_BASIS_DENSE, EQNN_BASIS_KRYLOV, 0, 0 } },
        { "C(2)", "T(2)", { EQNN_BASIS_DENSE, EQNN_BASIS_KRYLOV, 0, 0 } }, /* all is fixed */
        { "C(1)", "V", { EQNN_BASIS_DENSE, EQNN_BASIS_KRYLOV, 0, 0 } },
        { "S(1)", "V", { EQNN_BASIS_ORBITS, EQNN_BASIS_KRYLOV, 0, 0 } },
        { "Trivial(3)", "V**4", { EQNN_BASIS_ORBITS, EQNN_BASIS_KRYLOV, 0, 0 } },
        { "Scaling(3)", "V >> V", { EQNN_BASIS_WEIGHTS, EQNN_BASIS_KRYLOV, 0, 0 } } };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        double *first = NULL;
        for (int k = 0; cases[i].methods[k]; k++) {
            eqnn_ctx *c = test_context();
            use(c, (eqnn_basis_method)cases[i].methods[k]);
            const eqnn_rep *r = rep(c, cases[i].group, cases[i].text);
            size_t n = (size_t)eqnn_rep_size(r) * (size_t)eqnn_rep_size(r) * (size_t)field_of(r);
            double *P = projector(r);
            if (first) {
                test_note("%s %s: %.1e", cases[i].group, cases[i].text, apart(P, first, n));
                CHECK(apart(P, first, n) < 1e-9);
                free(P);
            } else first = P;
            CHECK_OK(c);
        }
        free(first);
    }
}

/* A group made of the generators of another one, changed by f. */
static const eqnn_group *altered(eqnn_ctx *c, const char *name, const char *as,
                                 void (*f)(double *, int, int, void *), void *user, int keep)
{
    const eqnn_group *g = eqnn_group_make(c, name);
    const double *A, *h;
    eqnn_group_opts o;
    memset(&o, 0, sizeof o);
    o.dim = eqnn_group_dim(g);
    o.lie = eqnn_group_lie(g, &A);
    o.discrete = eqnn_group_discrete(g, &h);
    if (keep && keep < o.lie) o.lie = keep;
    size_t d2 = (size_t)o.dim * (size_t)o.dim;
    double *B = doubles((size_t)o.lie * d2), *k = doubles((size_t)o.discrete * d2);
    memcpy(B, A, (size_t)o.lie * d2 * sizeof *B);
    if (o.discrete) memcpy(k, h, (size_t)o.discrete * d2 * sizeof *k);
    for (int i = 0; i < o.lie; i++) f(B + (size_t)i * d2, o.dim, 1, user);
    for (int i = 0; i < o.discrete; i++) f(k + (size_t)i * d2, o.dim, 0, user);
    o.lie_generators = B;
    o.generators = k;
    g = eqnn_group_of(c, as, &o);
    free(B); free(k);
    return g;
}

static void scaled(double *A, int d, int lie, void *user)
{
    for (int i = 0; i < d * d; i++) A[i] *= lie ? *(double *)user : 1;
}

TEST(units_of_generators_do_not_matter)
{
    static const char *const cases[][2] = { { "SO(3)", "T(4)" }, { "O13", "V**2*V.T**2" } };
    for (int i = 0; i < 2; i++) {
        double *first = NULL;
        static const double scales[] = { 1, 1e-6, 1e-3, 1e3 };
        for (int k = 0; k < 4; k++)
            for (int method = 0; method < 3; method++) {
                eqnn_ctx *c = test_context();
                double s = scales[k];
                use(c, method == 0 ? EQNN_BASIS_AUTO : method == 1 ? EQNN_BASIS_DENSE
                                                                   : EQNN_BASIS_KRYLOV);
                const eqnn_group *g = altered(c, cases[i][0], "scaled", scaled, &s, 0);
                const eqnn_rep *r = eqnn_rep_make(c, cases[i][1], g);
                size_t n = (size_t)eqnn_rep_size(r);
                double *P = projector(r);
                if (first) CHECK(apart(P, first, n * n) < 1e-9);
                if (first) free(P);
                else first = P;
                CHECK_OK(c);
            }
        free(first);
    }
}

/* A -> B A B^-1 with an upper triangular B: the same group in an oblique basis. */
static void oblique(double *A, int d, int lie, void *user)
{
    (void)lie;
    (void)user;
    for (int i = 0; i < d; i++)                       /* B = 1 + E_01 / 2 */
        A[0 * d + i] += 0.5 * A[1 * d + i];
    for (int i = 0; i < d; i++) A[i * d + 1] -= 0.5 * A[i * d + 0];
}

static void untouched(double *A, int d, int lie, void *user)
{
    (void)A; (void)d; (void)lie; (void)user;
}

TEST(groups_that_are_given_in_unusual_ways)
{
    eqnn_ctx *c = test_context();
    /* not closed under transposition: weights do not apply, the dimension is the same */
    const eqnn_group *g = altered(c, "SO(3)", "oblique", oblique, NULL, 0);
    CHECK(eqnn_basis_dim(eqnn_rep_make(c, "V >> V", g)) == 1);
    CHECK(eqnn_basis_dim(eqnn_rep_make(c, "V*V >> V", g)) == 1);
    CHECK(eqnn_basis_dim(eqnn_rep_make(c, "V*V >> V*V", g)) == 3);
    CHECK(eqnn_basis_dim(eqnn_rep_make(c, "V*V", g)) == 1);
    /* two of the three generators of SO(3) generate it */
    g = altered(c, "SO(3)", "two generators", untouched, NULL, 2);
    CHECK(eqnn_basis_dim(eqnn_rep_make(c, "T(6)", g)) == 15);
    /* shears: nothing semisimple, no weights. T(2) >> T(2) is Hom of 1 + 3-dimensional strings */
    double shear[4] = { 0, 1, 0, 0 };
    eqnn_group_opts o;
    memset(&o, 0, sizeof o);
    o.dim = 2;
    o.lie = 1;
    o.lie_generators = shear;
    g = eqnn_group_of(c, "shears", &o);
    CHECK(eqnn_basis_dim(eqnn_rep_make(c, "V", g)) == 1);
    CHECK(eqnn_basis_dim(eqnn_rep_make(c, "V >> V", g)) == 2);
    CHECK(eqnn_basis_dim(eqnn_rep_make(c, "T(2)", g)) == 2);
    /* a rotation about z and a single turn about x: no normal subgroup, together all of SO(3) */
    double rotation[9] = { 0, -1, 0, 1, 0, 0, 0, 0, 0 };
    double turn[9] = { 1, 0, 0, 0, 0.6, -0.8, 0, 0.8, 0.6 };
    o.dim = 3;
    o.lie_generators = rotation;
    o.discrete = 1;
    o.generators = turn;
    g = eqnn_group_of(c, "turned", &o);
    CHECK(eqnn_basis_dim(eqnn_rep_make(c, "V >> V", g)) == 1);
    CHECK(eqnn_basis_dim(eqnn_rep_make(c, "T(4)", g)) == 3);
    CHECK_OK(c);
}

TEST(sums_are_solved_type_by_type)
{
    eqnn_ctx *c = test_context();
    const eqnn_rep *r = rep(c, "S(3)", "V + 2 + V**2");     /* 3 + 1 + 1 + 9 columns */
    double Q[5 * 14];
    CHECK(eqnn_basis_dim(r) == 5);
    CHECK(eqnn_basis_dense(r, Q));
    for (int q = 0; q < 5; q++) {      /* every vector lies in one block: 0-2, 3, 4, 5-13 */
        int blocks = 0;
        for (int b = 0; b < 4; b++) {
            static const int begin[] = { 0, 3, 4, 5, 14 };
            double sum = 0;
            for (int i = begin[b]; i < begin[b + 1]; i++) sum += Q[q * 14 + i] * Q[q * 14 + i];
            blocks += sum > 0.5;
        }
        CHECK(blocks == 1);
    }
    CHECK(strstr(eqnn_basis_explain(r), "orbits") != NULL);
    CHECK(eqnn_basis_dim(eqnn_rep_scalars(c, 0)) == 0);
    CHECK(eqnn_basis_dense(eqnn_rep_scalars(c, 0), NULL));
    CHECK(eqnn_basis_project(eqnn_rep_scalars(c, 0), NULL));
    r = eqnn_rep_scalars(c, 3);
    CHECK(eqnn_basis_dim(r) == 3);
    CHECK_OK(c);
}

TEST(dimension_zero_is_explained)
{
    eqnn_ctx *c = test_context();
    const eqnn_rep *r = rep(c, "SO(3)", "2*V >> Scalar");
    double v[6] = { 1, 2, 3, 4, 5, 6 };
    CHECK(eqnn_basis_dim(r) == 0);
    CHECK(strstr(eqnn_basis_explain(r), "SO(3)") != NULL);
    CHECK(strstr(eqnn_basis_explain(r), "higher rank") != NULL);
    CHECK(eqnn_basis_project(r, v));
    for (int i = 0; i < 6; i++) CHECK(v[i] == 0);
    CHECK(eqnn_basis_dense(r, v));
    CHECK_OK(c);
}

TEST(bad_requests)
{
    eqnn_basis_opts o;
    eqnn_ctx *c = test_context();
    memset(&o, 0, sizeof o);
    CHECK(eqnn_basis_dim(NULL) == -1 && !eqnn_basis_dense(NULL, NULL));
    CHECK(!eqnn_basis_project(NULL, NULL) && eqnn_basis_explain(NULL) == NULL);
    CHECK(!eqnn_basis_options(NULL, NULL) && !eqnn_basis_file(NULL, "x"));
    use(c, EQNN_BASIS_ORBITS);
    CHECK(dim(c, "SO(3)", "V*V") == -1);
    CHECK_ERROR(c, "not solved by the method");
    use(c, EQNN_BASIS_WEIGHTS);
    CHECK(dim(c, "S(3)", "V*V") == -1);
    CHECK_ERROR(c, "not solved by the method");
    o.gap = -1;
    CHECK(!eqnn_basis_options(c, &o));
    CHECK_ERROR(c, "gap");
    o.gap = 0.1;
    CHECK(!eqnn_basis_options(c, &o));
    CHECK_ERROR(c, "gap");
    o.gap = 0;
    o.method = (eqnn_basis_method)17;
    CHECK(!eqnn_basis_options(c, &o));
    CHECK_ERROR(c, "17");
    o.method = EQNN_BASIS_AUTO;
    o.memory = 100000;
    CHECK(eqnn_basis_options(c, &o));
    CHECK(dim(c, "SO(3)", "T(8)") == -1);
    CHECK_ERROR(c, "memory");
    CHECK(dim(c, "S(10)", "T(5)") == -1);
    CHECK_ERROR(c, "memory");
    CHECK(dim(c, "SO(3)", "T(3)") == 1);
    CHECK(!eqnn_basis_dense(rep(c, "SO(3)", "T(3)"), NULL));
    CHECK_ERROR(c, "NULL");
    CHECK(!eqnn_basis_project(rep(c, "SO(3)", "T(3)"), NULL));
    CHECK_ERROR(c, "NULL");
    eqnn_fail(c, "an error");
    CHECK(dim(c, "SO(3)", "T(3)") == -1);
    eqnn_clear(c);
}

static void endless(double *out) { out[0] = NAN; }
static void not_a_number(const double *g, int d, double *out, int n, const void *user)
{
    (void)g; (void)d; (void)n; (void)user;
    endless(out);
}

TEST(generators_that_are_not_finite)
{
    eqnn_ctx *c = test_context();
    const eqnn_group *g = eqnn_group_make(c, "SO(3)");
    const eqnn_rep *r = eqnn_rep_define(g, "broken", 1, not_a_number, not_a_number, NULL, 0);
    CHECK(eqnn_basis_dim(r) == -1);
    CHECK(eqnn_error(c) != NULL);
    eqnn_clear(c);
}

/* Eigenvalues near zero pass the filter of the iteration and can push a fixed vector out of a block
   that is not larger than the fixed space: it must be looked for again. A boost leaves 2 vectors of
   V**2 fixed (its eigenvalues there are exp(2 a), 1, 1 and exp(-2 a)), a diagonal matrix those of
   its ones. */
TEST(iteration_misses_no_fixed_vector)
{
    enum { N = 60, FIXED = 24 };
    eqnn_ctx *c = test_context();
    eqnn_group_opts o;
    double h[N * N];
    int wrong = 0;
    memset(&o, 0, sizeof o);
    use(c, EQNN_BASIS_KRYLOV);
    o.discrete = 1, o.generators = h;
    for (int k = 0; k < 20; k++) {
        double a = 0.3 + 0.1 * k;
        h[0] = h[3] = cosh(a), h[1] = h[2] = sinh(a);
        o.dim = 2;
        const eqnn_group *g = eqnn_group_of(c, eqnn_format(c, "boost%d", k), &o);
        wrong += eqnn_basis_dim(eqnn_rep_make(c, "V**2", g)) != 2;
    }
    for (int k = 0; k < 100; k++) {
        memset(h, 0, sizeof h);
        for (int i = 0; i < N; i++)
            h[i * N + i] = i < FIXED ? 1 : i > FIXED ? -1 : 0.95 - 0.002 * k;
        o.dim = N;
        const eqnn_group *g = eqnn_group_of(c, eqnn_format(c, "diagonal%d", k), &o);
        wrong += eqnn_basis_dim(eqnn_rep_vector(g)) != FIXED;
    }
    CHECK_OK(c);
    test_note("%d of 120 are wrong", wrong);
    CHECK(wrong == 0);
}

/* The largest |h v - v| of a basis vector v, which is 1 long. */
static double moved(const eqnn_rep *r, const eqnn_group *g, const double *h, int rank)
{
    size_t n = (size_t)eqnn_rep_size(r);
    double *Q = doubles(n * (size_t)rank), *y = doubles(n), worst = 0;
    CHECK(eqnn_basis_dense(r, Q));
    for (size_t q = 0; q < (size_t)rank; q++) {
        CHECK(eqnn_rep_apply(r, &g, &h, 1, Q + q * n, y));
        worst = fmax(worst, apart(y, Q + q * n, n));
    }
    free(Q);
    free(y);
    return worst;
}

/* Boosts of rapidity 2 to 6, shears and squeezes: h - 1 is as large as 1e15 in V**4. What is called
   fixed must be fixed by h itself, and none may be missing; what cannot be known is an error. */
TEST(large_discrete_generators)
{
    static const char *const text[] = { "V**2", "V >> V", "V**4", "V**6" };
    static const int rank[] = { 2, 2, 6, 20 }; /* n over n / 2 */
    int known = 0;
    for (int k = 0; k < 8; k++) {
        eqnn_ctx *c = test_context();
        eqnn_group_opts o;
        double a = 2 + k, shear = k == 5 ? 1 : k == 6 ? 10 : 1000;
        double h[4] = { 1, shear, 0, 1 };
        if (k < 5) h[0] = h[3] = cosh(a), h[1] = h[2] = sinh(a);
        memset(&o, 0, sizeof o);
        o.dim = 2, o.discrete = 1, o.generators = h;
        const eqnn_group *g = eqnn_group_of(c, "large", &o);
        for (int i = 0; i < 4; i++) {
            const eqnn_rep *r = eqnn_rep_make(c, text[i], g);
            int d = (int)eqnn_basis_dim(r);
            CHECK(d == rank[i] || (d < 0 && strstr(eqnn_error(c), "multiplies rounding errors")));
            CHECK(i > 1 || d == 2);
            if (d > 0) CHECK(moved(r, g, h, d) < 1e-7);
            known += d > 0;
            eqnn_clear(c);
        }
    }
    test_note("%d of 32 are found", known);
    CHECK(known >= 22);
}

static int steps;
static void count_steps(void *user, const char *what, double done)
{
    (void)user;
    steps += what && done >= 0 && done <= 1;
}

TEST(progress_is_told)
{
    eqnn_ctx *c = test_context();
    eqnn_basis_opts o;
    memset(&o, 0, sizeof o);
    o.progress = count_steps;
    o.method = EQNN_BASIS_KRYLOV;
    CHECK(eqnn_basis_options(c, &o));
    steps = 0;
    CHECK(dim(c, "SO(3)", "T(4)") == 3);
    CHECK(steps > 0);
    memset(&o, 0, sizeof o);
    o.progress = count_steps;
    CHECK(eqnn_basis_options(c, &o));
    steps = 0;
    CHECK(dim(c, "S(8)", "V**6") == 203); /* orbits that all begin in the first 6 % */
    CHECK(steps >= 2);
}

/* ---- the file of bases ---- */

static long file_size(const char *path)
{
    FILE *f = fopen(path, "rb");
    long n = -1;
    if (f && !fseek(f, 0, SEEK_END)) n = ftell(f);
    if (f) fclose(f);
    return n;
}

static void flip(const char *path, long at)
{
    FILE *f = fopen(path, "r+b");
    int ch = f && !fseek(f, at, SEEK_SET) ? fgetc(f) : 0;
    if (f && !fseek(f, at, SEEK_SET)) fputc(ch ^ 64, f);
    if (f) fclose(f);
}

static double *solved(eqnn_ctx *c, const char *path, const char *group, const char *text,
                      const char *method)
{
    const eqnn_rep *r;
    CHECK(eqnn_basis_file(c, path));
    r = rep(c, group, text);
    CHECK(eqnn_basis_dim(r) >= 0);
    CHECK(strstr(eqnn_basis_explain(r), method) != NULL);
    CHECK_OK(c);
    return projector(r);
}

TEST(bases_are_kept_in_a_file)
{
    static const char *const cases[][3] = { { "SO(3)", "T(4)", "weights" },
                                            { "S(4)", "T(3)", "orbits" },
                                            { "U(2)", "V >> V", "weights" } };
    char path[128];
    snprintf(path, sizeof path, "/tmp/eqnn_bases_%d_%d", (int)sizeof(eqnn_real), test_serial);
    if (getenv("TMPDIR")) snprintf(path, sizeof path, "%.90s/eqnn_bases_%d", getenv("TMPDIR"),
                                   (int)sizeof(eqnn_real));
    remove(path);
    for (int i = 0; i < 3; i++) {
        double *a = solved(test_context(), path, cases[i][0], cases[i][1], cases[i][2]);
        double *b = solved(test_context(), path, cases[i][0], cases[i][1], "file");
        size_t n = i == 0 ? 81 * 81 : i == 1 ? 64 * 64 : 4 * 4 * 2;
        CHECK(!memcmp(a, b, n * sizeof *a));
        free(a); free(b);
    }
    eqnn_ctx *c = test_context();
    long size = file_size(path);
    flip(path, size - 5);
    CHECK(!eqnn_basis_file(c, path));
    CHECK_ERROR(c, "damaged");
    CHECK(dim(c, "SO(3)", "T(2)") == 1);           /* goes on without the file, which stays */
    CHECK_OK(c);
    CHECK(file_size(path) == size);
    flip(path, size - 5);
    c = test_context();
    CHECK(eqnn_basis_file(c, path));
    CHECK_OK(c);
    flip(path, 20);
    c = test_context();
    CHECK(!eqnn_basis_file(c, path));
    CHECK(eqnn_error(c) != NULL);
    eqnn_clear(c);
    eqnn_linear(test_normal(c, 2, 2), "a", 3, NULL);
    CHECK(eqnn_save(c, path));                      /* something else of the same form */
    size = file_size(path);
    CHECK(!eqnn_basis_file(c, path));
    CHECK_ERROR(c, "something else");
    CHECK(file_size(path) == size);
    remove(path);
    CHECK(!eqnn_basis_file(c, "/no such folder/bases") || dim(c, "SO(3)", "V*V") == -1);
    CHECK(eqnn_error(c) != NULL);
    eqnn_clear(c);
}

/* What is as small as that next to the largest singular value counts as zero, and what is larger
   does not: a third axis that a generator beside the turns of the others stretches by 1 + small. */
TEST(gap_says_what_is_zero)
{
    static const struct { double gap, small; int64_t fixed; } k[] = {
        { 0, 3e-9, 1 }, { 0, 1e-7, 0 }, { 1e-10, 3e-9, 0 }, { 1e-10, 3e-11, 1 }, { 1e-6, 1e-7, 1 },
        { 1e-6, 1e-5, 0 }, { 1e-3, 1e-4, 1 }, { 1e-3, 1e-2, 0 }
    };
    static const eqnn_basis_method methods[2] = { EQNN_BASIS_DENSE, EQNN_BASIS_WEIGHTS };
    for (size_t i = 0; i < 2 * sizeof k / sizeof *k; i++) {
        double turn[9] = { 0, -1, 0, 1, 0, 0, 0, 0, 0 }, h[9] = { 1, 0, 0, 0, 1, 0, 0, 0, 1 };
        eqnn_ctx *c = test_context();
        eqnn_group_opts g;
        eqnn_basis_opts o;
        memset(&g, 0, sizeof g);
        memset(&o, 0, sizeof o);
        h[8] += k[i / 2].small;
        g.dim = 3, g.lie = g.discrete = 1, g.lie_generators = turn, g.generators = h;
        o.method = methods[i % 2], o.gap = k[i / 2].gap;
        CHECK(eqnn_basis_options(c, &o));
        CHECK(eqnn_basis_dim(eqnn_rep_vector(eqnn_group_of(c, "stretch", &g))) == k[i / 2].fixed);
        CHECK_OK(c);
    }
}

/* Fixed vectors of two complex groups that know nothing of each other are products of complex
   numbers: each leaves (1, i) / sqrt(2) alone, both (1, i, i, -1) / 2. */
TEST(products_of_complex_groups)
{
    static const double h[8] = { 0, 0, 0, -1, 0, 1, 0, 0 }; /* (0, -i; i, 0) */
    static const double want[8] = { .5, 0, 0, .5, 0, .5, -.5, 0 };
    eqnn_ctx *c = test_context();
    eqnn_group_opts o;
    memset(&o, 0, sizeof o);
    o.dim = 2, o.discrete = 1, o.generators = h, o.complex_numbers = 1;
    const eqnn_group *a = eqnn_group_of(c, "one", &o), *b = eqnn_group_apart(a, "other");
    const eqnn_rep *r = eqnn_rep_product(eqnn_rep_vector(a), eqnn_rep_vector(b));
    double Q[8] = { 0 }, re = 0, im = 0;
    CHECK(eqnn_basis_dim(r) == 1 && eqnn_basis_dense(r, Q));
    for (int k = 0; k < 8; k += 2) { /* up to a phase: <want, Q> has length 1 */
        re += want[k] * Q[k] + want[k + 1] * Q[k + 1];
        im += want[k] * Q[k + 1] - want[k + 1] * Q[k];
    }
    CHECK_NEAR(re * re + im * im, 1, 1e-12);
    CHECK_OK(c);
}

/* Two contexts with one file, in turns: none drops what the other has added since it read the file,
   and neither solves again what it knows. */
TEST(contexts_share_a_file)
{
    static const char *const text[4] = { "T(2)", "T(3)", "T(2)", "T(3)" };
    char path[128];
    snprintf(path, sizeof path, "%.90s/eqnn_shared_bases_%d",
             getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp", (int)sizeof(eqnn_real));
    remove(path);
    eqnn_ctx *c[2] = { test_context(), test_context() };
    for (int i = 0; i < 2; i++) CHECK(eqnn_basis_file(c[i], path));
    for (int i = 0; i < 4; i++) {
        CHECK(dim(c[i % 2], i < 2 ? "SO(3)" : "S(4)", text[i]) > 0);
        eqnn_ctx *now = test_context();
        CHECK(eqnn_basis_file(now, path));
        for (int k = 0; k <= i; k++) {
            const eqnn_rep *r = rep(now, k < 2 ? "SO(3)" : "S(4)", text[k]);
            CHECK(eqnn_basis_dim(r) > 0 && strstr(eqnn_basis_explain(r), "(file)"));
        }
        CHECK_OK(now);
    }
    eqnn_file *f = eqnn_file_open(c[0], path);
    CHECK(eqnn_file_count(f) == 4); /* entries of the same key: one */
    eqnn_file_close(f);
    const eqnn_rep *r = rep(c[1], "S(4)", "T(2)"); /* c[0]'s, read when c[1] kept its own */
    CHECK(eqnn_basis_dim(r) > 0 && strstr(eqnn_basis_explain(r), "(file)"));
    CHECK_OK(c[0]);
    CHECK_OK(c[1]);
    long size = file_size(path);
    flip(path, 20); /* what was damaged in between stays as it is, too */
    CHECK(dim(c[0], "SO(3)", "T(4)") == -1 && eqnn_error(c[0]) != NULL && file_size(path) == size);
    eqnn_clear(c[0]);
    remove(path);
}

/* Every amount of memory gives the answer or a sentence. */
TEST(little_memory)
{
    static char buffer[1 << 20];
    int answers = 0;
    for (size_t size = 1 << 14; size <= sizeof buffer; size += size / 4) {
        eqnn_opts o = test_opts();
        o.buffer = buffer;
        o.buffer_size = size;
        eqnn_ctx *c = eqnn_make(&o);
        int64_t n = dim(c, "O(3)", "T(4)");
        CHECK(n == 3 || (n == -1 && eqnn_error(c)));
        answers += n == 3;
        eqnn_free(c);
    }
    CHECK(answers > 0);
}

typedef struct heap { size_t used, most; } heap;

static void *counted(void *user, void *old, size_t old_size, size_t new_size)
{
    heap *h = (heap *)user;
    h->used += new_size - old_size;
    if (h->used > h->most) h->most = h->used;
    if (new_size) return realloc(old, new_size);
    free(old);
    return NULL;
}

/* A basis of 91 vectors that is too large is refused before the work for it, by memory taken. */
TEST(refused_before_the_work)
{
    heap h[2] = { { 0, 0 }, { 0, 0 } };
    for (int k = 0; k < 2; k++) {
        eqnn_opts o = test_opts();
        eqnn_basis_opts b;
        memset(&b, 0, sizeof b);
        o.alloc = counted;
        o.alloc_user = &h[k];
        if (k) b.memory = 1000000; /* the basis takes 91 * 3^8 * 8 bytes, 4.8e6 */
        eqnn_ctx *c = eqnn_make(&o);
        const eqnn_rep *r = rep(c, "SO(3)", "T(8)");
        eqnn_basis_options(c, &b);
        size_t before = h[k].most = h[k].used;
        CHECK(eqnn_basis_dim(r) == (k ? -1 : 91));
        h[k].most -= before;
        if (k) CHECK_ERROR(c, "4.776e+06 bytes beside 0 in use are more than the 1e+06");
        eqnn_free(c);
    }
    test_note("%zu bytes, refused after %zu", h[0].most, h[1].most);
    CHECK(h[1].most < 400000);
}

/* The same space, by vectors of zeros and ones. */
TEST(sparse_bases)
{
    static const struct { const char *group, *maps; int filled, most; } known[] = {
        { "SO(3)", "V*V >> V", 6, 1 },            /* the Levi-Civita tensor */
        { "O(3)", "T(4)", 27, 1 },                /* three products of two deltas */
        { "S(4)", "V >> V", 16, 1 },              /* equal indices, different ones */
        { "Z(5)", "2*V >> V+2", 70, 1 },
        { "SO(2)", "psi(2) >> V*V", 8, 1 },
        { "SU(2)", "V*V", 2, 1 },                 /* complex: the antisymmetric tensor */
        { "SO13p", "V >> V.T", 4, 1 },            /* the metric */
        { "SO(4)", "T(4)", 72, 1 },
        { "S(3)", "T(4)", 81, 1 },
    };
    eqnn_ctx *c = test_context();
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        const eqnn_rep *r = rep(c, known[i].group, known[i].maps);
        size_t n = (size_t)eqnn_rep_size(r), F = (size_t)field_of(r);
        size_t rank = (size_t)eqnn_basis_dim(r);
        double *Q = doubles(rank * n * F), *v = doubles(n * F), most = 0;
        int filled = 0;
        CHECK(eqnn_basis_sparse(r, Q));
        for (size_t k = 0; k < rank * n * F; k++) {
            filled += Q[k] != 0;
            most = fmax(most, fabs(Q[k]));
            CHECK(Q[k] == floor(Q[k]));
        }
        test_note("%s: %s has %d numbers beside zeros, up to %g", known[i].group, known[i].maps,
                  filled, most);
        CHECK(filled == known[i].filled && most == known[i].most);
        for (size_t q = 0; q < rank; q++) {
            memcpy(v, Q + q * n * F, n * F * sizeof *v);
            CHECK(eqnn_basis_project(r, v));
            CHECK(apart(v, Q + q * n * F, n * F) < 1e-12);
        }
        free(Q), free(v);
    }
    CHECK(!eqnn_basis_sparse(NULL, NULL));
    CHECK_OK(c);
}

/* E [d][d][F] = exp(t A), by its series */
static void exponential(const double *A, double t, int d, int F, double *E)
{
    size_t n = (size_t)(d * d * F);
    double *term = doubles(n), *next = doubles(n);
    for (int i = 0; i < d; i++) E[i * (d + 1) * F] = term[i * (d + 1) * F] = 1;
    for (int k = 1; k < 12; k++) {
        memset(next, 0, n * sizeof *next);
        for (int i = 0; i < d * d * d; i++) {
            int row = i / d / d, col = i / d % d, j = i % d;
            const double *x = term + (row * d + j) * F, *y = A + (j * d + col) * F;
            double *to = next + (row * d + col) * F;
            to[0] += (x[0] * y[0] - (F == 2 ? x[F - 1] * y[F - 1] : 0)) * t / k;
            if (F == 2) to[1] += (x[0] * y[1] + x[1] * y[0]) * t / k;
        }
        memcpy(term, next, n * sizeof *term);
        for (size_t i = 0; i < n; i++) E[i] += term[i];
    }
    free(next);
    free(term);
}

static void square_rho(const double *g, int d, double *out, int n, const void *user)
{
    (void)user;
    for (int i = 0; i < n * n; i++)
        out[i] = g[i / n / d * d + i % n / d] * g[i / n % d * d + i % n % d];
}

/* The derivative of rho(exp(t A)) at 0, by differences of the whole matrix; A is a mixture of the
   generators, and the second group, where there is one, has none or stands still. */
TEST(derivatives_along_the_algebra)
{
    static const char *const text[] = { "V(SL(3))*V(SL(3)).T+2*V(SL(3))", "V(SO13p).T**2+3",
                                        "V(U(2))**2*V(U(2)).T", "psi(3)(SO(2))*V(SO(2))",
                                        "V(SO(3))*V(S(3))+V(SO(3))", "own(SO(3))*V(SO(3))" };
    for (int i = 0; i < 6; i++) {
        eqnn_ctx *c = test_context();
        const eqnn_group *g[2];
        CHECK(eqnn_rep_define(eqnn_group_make(c, "SO(3)"), "own", 9, square_rho, NULL, NULL, 0));
        const eqnn_rep *r = eqnn_rep_make(c, text[i], NULL);
        int n = eqnn_rep_groups(r, g, 2), G = eqnn_group_lie(g[0], NULL) ? 0 : 1;
        int d = eqnn_group_dim(g[G]), F = field_of(r), size = eqnn_rep_size(r);
        size_t all = (size_t)(d * d * F), N = (size_t)(size * size * F);
        double *A = doubles(all), *E = doubles(all), *D = doubles(N), *m[2];
        const double one[9] = { 1, 0, 0, 0, 1, 0, 0, 0, 1 }, *generators, *element[2];
        for (int k = 0; k < eqnn_group_lie(g[G], &generators); k++)
            for (size_t j = 0; j < all; j++)
                A[j] += (0.7 - 0.3 * k) * generators[(size_t)k * all + j];
        element[0] = A;
        CHECK(eqnn_rep_derivative(r, g + G, element, 1, D));
        for (int side = 0; side < 2; side++) {
            m[side] = doubles(N);
            memset(E, 0, all * sizeof *E);
            exponential(A, side ? -1e-4 : 1e-4, d, F, E);
            element[G] = E;
            element[1 - G] = one;
            CHECK(eqnn_rep_matrix(r, g, element, n, m[side]));
        }
        for (size_t j = 0; j < N; j++) m[0][j] = (m[0][j] - m[1][j]) / 2e-4;
        test_note("%s: %.1e", text[i], apart(D, m[0], N));
        CHECK(apart(D, m[0], N) < 1e-6);
        CHECK_OK(c);
        free(A), free(E), free(D), free(m[0]), free(m[1]);
    }
}

/* A group given by permutations: the same as by their matrices, and of sizes where these would take
   gigabytes. */
TEST(own_permutations)
{
    eqnn_ctx *c = test_context();
    int cycle[4] = { 3, 0, 1, 2 }, twice[4] = { 0, 1, 1, 2 };
    eqnn_group_opts o;
    memset(&o, 0, sizeof o);
    o.dim = 4;
    o.discrete = 1;
    o.permutations = cycle;
    CHECK(eqnn_group_of(c, "turn", &o) == eqnn_group_make(c, "Z(4)"));
    o.permutations = twice;
    CHECK(!eqnn_group_of(c, "twice", &o));
    CHECK_ERROR(c, "permutation 0 has 1 at place 2, which is there twice");
    twice[1] = 4;
    CHECK(!eqnn_group_of(c, "none", &o));
    CHECK_ERROR(c, "which is none");
    double one[16] = { 1 };
    o.generators = one;
    CHECK(!eqnn_group_of(c, "both", &o));
    CHECK_ERROR(c, "permutations stand alone");
    int n = 40000, *p = (int *)malloc(2 * (size_t)n * sizeof *p);
    for (int i = 0; i < n; i++) p[i] = (i + 4) % n, p[n + i] = i ^ 1;
    memset(&o, 0, sizeof o);
    o.dim = n;
    o.discrete = 2;
    o.permutations = p;
    const eqnn_group *g = eqnn_group_of(c, "large", &o);
    CHECK(eqnn_group_permutation(g));
    CHECK(eqnn_basis_dim(eqnn_rep_vector(g)) == 2);
    CHECK_OK(c);
    free(p);
}

/* The torus of a large group is found: eigenvalues of matrices of 20 rows and more, too. */
TEST(weights_of_large_groups)
{
    static const char *const group[3] = { "SO(20)", "SO(31)", "Sp(11)" };
    eqnn_ctx *c = test_context();
    eqnn_basis_options(c, &(eqnn_basis_opts){ .method = EQNN_BASIS_WEIGHTS });
    for (int i = 0; i < 3; i++) {
        const eqnn_rep *r = eqnn_rep_make(c, "V*V", eqnn_group_make(c, group[i]));
        CHECK(eqnn_basis_dim(r) == 1);
        CHECK_OK(c);
    }
}

TEST_MAIN
