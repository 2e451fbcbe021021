/* groups.c - matrix groups and their representations (sections 2 and 3 of eqnn_groups.h) */
#include "test.h"
#include "../eqnn_groups.h"

static const char *const every_group[] = {
    "Trivial(3)", "Trivial(1)", "SO(1)", "SO(2)", "SO(3)", "SO(5)", "O(1)", "O(2)", "O(4)", "C(1)",
    "C(2)", "C(3)", "C(8)", "D(1)", "D(2)", "D(5)", "Scaling(3)", "Parity", "TimeReversal", "SO13p",
    "SO13", "O13", "Lorentz", "SO11p", "O11", "O(1,3)", "SO(1,3)", "O(2,2)", "SO(2,3)", "Sp(1)",
    "Sp(3)", "Z(1)", "Z(2)", "Z(6)", "S(1)", "S(2)", "S(6)", "Alt(2)", "Alt(5)", "SL(1)", "SL(3)",
    "GL(1)", "GL(3)", "U(1)", "U(3)", "SU(1)", "SU(2)", "SU(3)", "Cube", "RubiksCube",
    "RubiksCubeLegacy", "ZksZnxZn(2,2)", "ZksZnxZn(4,3)", "SO2eR3", "O2eR3", "DkeR3(6)",
    "SO(3)xS(5)", "U(2)xZ(3)", "Embed(SO(2),3,1)", "Embed(SO(2),4,3,1)", "Real(U(2))",
    "Real(SU(3))" };
#define EVERY_GROUP ((int)(sizeof every_group / sizeof every_group[0]))

/* max |a - b| / max(1, max |b|); infinite when something is not a number */
static double apart(const double *a, const double *b, size_t n)
{
    double most = 0, size = 1;
    for (size_t i = 0; i < n; i++) {
        most = fmax(most, fabs(a[i] - b[i]));
        size = fmax(size, fabs(b[i]));
        if (!(most < INFINITY)) return INFINITY;
    }
    return most / size;
}

static size_t square(const eqnn_group *g)
{
    size_t d = (size_t)eqnn_group_dim(g);
    return d * d * (size_t)(1 + eqnn_group_complex(g));
}

/* C = A B, real */
static void times(int n, int k, int m, const double *A, const double *B, double *C)
{
    for (int i = 0; i < n; i++)
        for (int j = 0; j < m; j++) {
            double sum = 0;
            for (int l = 0; l < k; l++) sum += A[i * k + l] * B[l * m + j];
            C[i * m + j] = sum;
        }
}

/* ---- groups --------------------------------------------------------------------------------- */

TEST(table_of_groups)
{
    static const struct {
        const char *name;
        int dim, lie, discrete, orthogonal, permutation;
    } row[] = {
        { "Trivial(3)", 3, 0, 0, 1, 1 }, { "SO(4)", 4, 6, 0, 1, 0 },  { "SO(1)", 1, 0, 0, 1, 1 },
        { "O(4)", 4, 6, 1, 1, 0 },       { "O(1)", 1, 0, 1, 1, 0 },   { "C(1)", 2, 0, 1, 1, 1 },
        { "C(4)", 2, 0, 1, 1, 0 },       { "D(1)", 2, 0, 2, 1, 0 },   { "D(4)", 2, 0, 2, 1, 0 },
        { "Scaling(3)", 3, 1, 0, 0, 0 }, { "Parity", 4, 0, 1, 1, 0 },
            { "TimeReversal", 4, 0, 1, 1, 0 },
        { "SO13p", 4, 6, 0, 0, 0 },      { "SO13", 4, 6, 1, 0, 0 },   { "O13", 4, 6, 2, 0, 0 },
        { "SO11p", 2, 1, 0, 0, 0 },      { "O11", 2, 1, 2, 0, 0 },    { "Sp(3)", 6, 21, 0, 0, 0 },
        { "Z(5)", 5, 0, 1, 1, 1 },       { "S(5)", 5, 0, 4, 1, 1 },   { "S(1)", 1, 0, 0, 1, 1 },
        { "Alt(5)", 5, 0, 3, 1, 1 },     { "SL(3)", 3, 8, 0, 0, 0 },  { "GL(3)", 3, 9, 0, 0, 0 },
        { "U(3)", 3, 9, 0, 0, 0 },       { "SU(3)", 3, 8, 0, 0, 0 },  { "SU(1)", 1, 0, 0, 0, 0 },
        { "Cube", 6, 0, 2, 1, 1 },       { "RubiksCube", 48, 0, 6, 1, 1 },
        { "ZksZnxZn(4,3)", 36, 0, 3, 1, 1 }, { "SO2eR3", 3, 1, 0, 1, 0 },
            { "O2eR3", 3, 1, 1, 1, 0 },
        { "DkeR3(6)", 3, 0, 2, 1, 0 },   { "SO(3)xS(5)", 15, 3, 4, 1, 0 },
        { "Z(3)xS(4)", 12, 0, 4, 1, 1 }, { "Real(U(2))", 4, 4, 0, 1, 0 } };
    eqnn_ctx *c = test_context();
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        const eqnn_group *g = eqnn_group_make(c, row[i].name);
        if (!CHECK(g != NULL)) return;
        int good = eqnn_group_dim(g) == row[i].dim && eqnn_group_lie(g, NULL) == row[i].lie &&
                   eqnn_group_discrete(g, NULL) == row[i].discrete &&
                   eqnn_group_orthogonal(g) == row[i].orthogonal &&
                   eqnn_group_permutation(g) == row[i].permutation;
        if (!CHECK(good)) printf("    %s\n", row[i].name);
    }
    CHECK(eqnn_group_complex(eqnn_group_make(c, "SU(2)")));
    CHECK(!eqnn_group_complex(eqnn_group_make(c, "Real(SU(2))")));
}

/* Equal generators are one group; Embed on other places is another (so is its key). */
TEST(equal_content_equal_pointer)
{
    eqnn_ctx *c = test_context();
    const double shift[4] = { 0, 1, 1, 0 };
    eqnn_group_opts o;
    CHECK(eqnn_group_make(c, "SO(3)") == eqnn_group_make(c, " SO( 3 ) "));
    CHECK(eqnn_group_make(c, "Lorentz") == eqnn_group_make(c, "O(1,3)"));
    CHECK(eqnn_group_make(c, "SO2eR3") == eqnn_group_make(c, "Embed(SO(2),3,0)"));
    CHECK(eqnn_group_make(c, "SO2eR3") != eqnn_group_make(c, "Embed(SO(2),3,1)"));
    CHECK(eqnn_group_make(c, "S(2)") == eqnn_group_make(c, "Z(2)"));
    CHECK(eqnn_group_make(c, "SO(2)xS(3)") == eqnn_group_product(eqnn_group_make(c, "SO(2)"),
                                                                eqnn_group_make(c, "S(3)")));
    CHECK(eqnn_group_make(c, "SO(3)") != eqnn_group_make(c, "O(3)"));
    memset(&o, 0, sizeof o);
    o.dim = 2;
    o.discrete = 1;
    o.generators = shift;
    const eqnn_group *own = eqnn_group_of(c, "swap", &o);
    CHECK(own == eqnn_group_make(c, "Z(2)"));
    CHECK(own == eqnn_group_make(c, "swap"));
    CHECK(eqnn_rep_same(eqnn_rep_make(c, "V(swap)", NULL), eqnn_rep_vector(own)));
    CHECK(eqnn_group_real(own) == own);
}

/* Two groups of rotations that know nothing of each other: matrices m become R1 m R2^T, and what is
   invariant of two such matrices is tr(m^T n) alone; of one group there are three invariants. */
TEST(groups_apart)
{
    eqnn_ctx *c = test_context();
    const eqnn_group *so3 = eqnn_group_make(c, "SO(3)");
    const eqnn_group *left = eqnn_group_apart(so3, "left"), *right = eqnn_group_apart(so3, "right");
    CHECK(left && right && left != so3 && left != right);
    CHECK(left == eqnn_group_apart(so3, "left") && left == eqnn_group_make(c, "left"));
    CHECK(eqnn_group_product(left, right) != eqnn_group_product(left, left));
    CHECK(eqnn_group_embed(left, 4, (const int[]){ 0, 1, 2 }) !=
          eqnn_group_embed(right, 4, (const int[]){ 0, 1, 2 }));
    const struct { const char *rep; int rank; } row[] = {
        { "V(left)*V(right) >> V(left)*V(right)", 1 }, { "V(left)*V(left) >> V(left)*V(left)", 3 },
        { "V(right)**2 >> V(right)**2", 3 },           { "V(left) >> V(right)", 0 },
        { "V(left)*V(right) >> V(SO(3))**2", 0 },      { "V(left)**3*V(right)**3 >> Scalar", 1 } };
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        const eqnn_rep *maps = eqnn_rep_make(c, row[i].rep, NULL);
        if (!CHECK(eqnn_basis_dim(maps) == row[i].rank)) printf("    %s\n", row[i].rep);
    }
    double R[2][9], m[9], y[9], turned[9] = { 0 };
    eqnn_group_sample(left, "left", 1, R[0]);
    eqnn_group_sample(right, "right", 1, R[1]);
    for (int i = 0; i < 9; i++) m[i] = i * i - 3;
    for (int i = 0; i < 9; i++)
        for (int k = 0; k < 9; k++)
            turned[i] += R[0][i / 3 * 3 + k / 3] * m[k] * R[1][i % 3 * 3 + k % 3];
    const eqnn_group *const both[2] = { left, right };
    const double *const elements[2] = { R[0], R[1] };
    eqnn_rep_apply(eqnn_rep_make(c, "V(left)*V(right)", NULL), both, elements, 2, m, y);
    CHECK(apart(y, turned, 9) < 1e-13 && apart(R[0], R[1], 9) > 0.1);
    CHECK(!eqnn_group_apart(eqnn_group_make(c, "SO(2)"), "left"));
    CHECK_ERROR(c, "group left: the name belongs to another group");
    CHECK(!eqnn_group_apart(so3, "O(3)"));
    CHECK_ERROR(c, "group O(3): the name belongs to another group");
    CHECK(!eqnn_group_apart(so3, NULL));
    CHECK_ERROR(c, "group_apart: SO(3) needs another name");
}

/* Quarter turns, 0 1 -1 0, of axes 3 and 1 of four; places that follow each other need no list. */
TEST(embeddings)
{
    eqnn_ctx *c = test_context();
    const eqnn_group *turns = eqnn_group_make(c, "C(4)");
    const double quarter[16] = { 1, 0, 0, 0, 0, 0, 0, -1, 0, 0, 1, 0, 0, 1, 0, 0 }, *h;
    const eqnn_group *g = eqnn_group_embed(turns, 4, (const int[]){ 3, 1 });
    CHECK_TEXT(eqnn_group_name(g), "Embed(C(4),4,3,1)");
    CHECK(g == eqnn_group_make(c, "Embed(C(4),4,3,1)"));
    if (CHECK(eqnn_group_discrete(g, &h) == 1)) CHECK(apart(h, quarter, 16) < 1e-15);
    g = eqnn_group_embed(turns, 4, (const int[]){ 1, 2 });
    CHECK_TEXT(eqnn_group_name(g), "Embed(C(4),4,1)");
    CHECK_TEXT(eqnn_group_name(NULL), "");
    CHECK(!eqnn_group_embed(turns, 1, (const int[]){ 0 }));
    CHECK_ERROR(c, "group_embed: C(4) has 2 dimensions, there are 1 places");
}

/* Pairs of stickers fall into 9 orbits under the true group and into 6 under the published one. */
TEST(rubiks_cube)
{
    eqnn_ctx *c = test_context();
    static const char *const names[2] = { "RubiksCube", "RubiksCubeLegacy" };
    for (int which = 0; which < 2; which++) {
        const double *h;
        int n = eqnn_group_discrete(eqnn_group_make(c, names[which]), &h), *orbit, orbits = 48 * 48;
        orbit = (int *)malloc(48 * 48 * sizeof *orbit);
        if (!orbit || !CHECK(n == 6)) return;
        for (int i = 0; i < 48 * 48; i++) orbit[i] = i;
        for (int changed = 1; changed;) {
            changed = 0;
            for (int k = 0; k < n; k++) {
                int p[48];
                for (int i = 0; i < 48; i++)
                    for (int j = 0; j < 48; j++)
                        if (h[(k * 48 + i) * 48 + j] == 1) p[i] = j;
                for (int i = 0; i < 48 * 48; i++) {
                    int *a = &orbit[i], *b = &orbit[p[i / 48] * 48 + p[i % 48]];
                    if (*a == *b) continue;
                    *a = *b = *a < *b ? *a : *b;
                    changed = 1;
                }
            }
        }
        for (int i = 0; i < 48 * 48; i++) orbits -= orbit[i] != i;
        CHECK(orbits == (which ? 6 : 9));
        free(orbit);
    }
}

/* Elements keep the form that defines the group: g^T M g = M. */
static void check_form(eqnn_ctx *c, const char *name, const double *M)
{
    const eqnn_group *g = eqnn_group_make(c, name);
    int n = eqnn_group_dim(g);
    double x[5 * 36], t[36], u[36], v[36];
    CHECK(eqnn_group_sample(g, "form", 5, x));
    for (int s = 0; s < 5; s++) {
        const double *e = x + s * n * n;
        for (int i = 0; i < n * n; i++) t[i % n * n + i / n] = e[i];
        times(n, n, n, t, M, u);
        times(n, n, n, u, e, v);
        double error = apart(v, M, (size_t)(n * n)), size = 1;
        for (int i = 0; i < n * n; i++) size = fmax(size, e[i] * e[i]);
        CHECK_NEAR(error / size, 0, 1e-12);
    }
}

TEST(forms_are_kept)
{
    eqnn_ctx *c = test_context();
    double metric[16] = { -1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1 };
    double split[16] = { 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, -1, 0, 0, 0, 0, -1 };
    double J[36] = { 0 };
    for (int i = 0; i < 3; i++) { J[i * 6 + i + 3] = 1; J[(i + 3) * 6 + i] = -1; }
    check_form(c, "O13", metric);
    check_form(c, "SO13", metric);
    check_form(c, "O(2,2)", split);
    check_form(c, "SO(2,2)", split);
    check_form(c, "Sp(3)", J);
}

/* Random elements are finite, and orthogonal where the group says so. */
TEST(samples_are_elements)
{
    eqnn_ctx *c = test_context();
    for (int i = 0; i < EVERY_GROUP; i++) {
        const eqnn_group *g = eqnn_group_make(c, every_group[i]);
        int d = eqnn_group_dim(g), ways = 2;
        double *x = (double *)malloc(3 * square(g) * sizeof *x), worst = 0;
        for (int way = 0; x && way < ways; way++) {
            CHECK(way ? eqnn_group_sample_published(g, "s", 3, x)
                  : eqnn_group_sample(g, "s", 3, x));
            for (size_t k = 0; k < 3 * square(g); k++)
                if (!(fabs(x[k]) < INFINITY)) worst = INFINITY;
            for (int s = 0; s < 3 && eqnn_group_orthogonal(g); s++)
                for (int a = 0; a < d; a++)
                    for (int b = 0; b < d; b++) {
                        double sum = a == b ? -1 : 0;
                        for (int k = 0; k < d; k++)
                            sum += x[(s * d + a) * d + k] * x[(s * d + b) * d + k];
                        worst = fmax(worst, fabs(sum));
                    }
        }
        if (!CHECK_NEAR(worst, 0, 1e-12)) printf("    %s\n", every_group[i]);
        free(x);
    }
    CHECK_OK(c);
}

/* Over a compact group the mean of |trace|^2 is the dimension of Hom(V, V). */
TEST(samples_are_uniform)
{
    static const struct { const char *name; double homs; } row[] = {
        { "SO(2)", 2 }, { "SO(3)", 1 }, { "SO(5)", 1 }, { "O(2)", 1 }, { "O(3)", 1 }, { "U(1)", 1 },
        { "U(3)", 1 },  { "SU(2)", 1 }, { "SU(3)", 1 }, { "C(7)", 2 }, { "D(4)", 1 }, { "Z(6)", 6 },
        { "S(6)", 2 },  { "Alt(5)", 2 }, { "Cube", 3 }, { "O2eR3", 2 }, { "Real(SU(2))", 4 },
        { "SO(3)xS(5)", 2 }, { "Parity", 10 }, { "ZksZnxZn(2,2)", 8 }, { "D(1)", 2 } };
    enum { N = 4000 };
    eqnn_ctx *c = test_context();
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        const eqnn_group *g = eqnn_group_make(c, row[i].name);
        int d = eqnn_group_dim(g), f = 1 + eqnn_group_complex(g);
        double *x = (double *)malloc(N * square(g) * sizeof *x), sum = 0, squares = 0;
        if (!x || !CHECK(eqnn_group_sample(g, "uniform", N, x))) return;
        for (int s = 0; s < N; s++) {
            double t[2] = { 0, 0 };
            for (int k = 0; k < d; k++)
                for (int r = 0; r < f; r++)
                    t[r] += x[(size_t)s * square(g) + (size_t)((k * d + k) * f + r)];
            sum += t[0] * t[0] + t[1] * t[1];
            squares += pow(t[0] * t[0] + t[1] * t[1], 2);
        }
        double mean = sum / N, error = sqrt((squares / N - mean * mean) / N);
        if (!CHECK(fabs(mean - row[i].homs) < 5 * error + 1e-9))
            printf("    %s: %g, not %g\n", row[i].name, mean, row[i].homs);
        free(x);
    }
}

/* The published way turns the plane by a normal angle z: the mean of cos z is exp(-1/2). In O(2)
   the mirror's power is even as often as odd. Of boosts the mean of cosh z is exp(1/2). */
TEST(samples_as_published)
{
    enum { N = 4000 };
    eqnn_ctx *c = test_context();
    double *x = (double *)malloc(N * 4 * sizeof *x), mean = 0, det = 0;
    if (!x) return;
    CHECK(eqnn_group_sample_published(eqnn_group_make(c, "SO(2)"), "p", N, x));
    for (int s = 0; s < N; s++) mean += x[4 * s] / N;
    CHECK_NEAR(mean, exp(-0.5), 0.03);
    CHECK(eqnn_group_sample_published(eqnn_group_make(c, "O(2)"), "p", N, x));
    for (int s = 0; s < N; s++) det += (x[4 * s] * x[4 * s + 3] - x[4 * s + 1] * x[4 * s + 2]) / N;
    CHECK_NEAR(det, 0, 0.06);
    mean = 0;
    CHECK(eqnn_group_sample_published(eqnn_group_make(c, "SO11p"), "p", N, x));
    for (int s = 0; s < N; s++) mean += x[4 * s] / N;
    CHECK_NEAR(mean, exp(0.5), 0.1);
    /* exp(z A) with z a number N(0,1) times the scale of the generator */
    static const double A[4] = { 0, -1, 1, 0 }, quarter[1] = { 0.25 };
    double angle[2], g[4];
    for (int k = 0; k < 2; k++) {
        const eqnn_group_opts o = { .dim = 2, .lie = 1, .lie_generators = A,
                                    .scale = k ? quarter : NULL };
        eqnn_ctx *own = test_context();
        CHECK(eqnn_group_sample_published(eqnn_group_of(own, "turns", &o), "p", 1, g));
        angle[k] = atan2(g[2], g[0]);
    }
    CHECK(fabs(angle[0]) > 1e-3 && fabs(angle[0]) < 3);
    CHECK_NEAR(angle[1], 0.25 * angle[0], 1e-14);
    CHECK(eqnn_group_sample_published(eqnn_group_make(c, "SO13p"), "p", N / 4, x));
    double boosts = 0; /* three generators of scale 0.3 each: cosh grows by half the square */
    for (int s = 0; s < N / 4; s++) boosts += x[16 * s] / (N / 4);
    CHECK_NEAR(boosts, 1 + 0.135, 0.03);
    free(x);
}

/* Rubik's cube by words (2 orbits of stickers: on average 2 stay), S(300) as a list of
   transpositions that is never made into matrices. */
TEST(large_groups)
{
    eqnn_ctx *c = test_context();
    const eqnn_group *g = eqnn_group_make(c, "RubiksCube"), *s = eqnn_group_make(c, "S(300)");
    double *x = (double *)malloc(400 * 48 * 48 * sizeof *x), trace = 0;
    if (!x || !CHECK(eqnn_group_sample(g, "cube", 400, x))) return;
    for (int k = 0; k < 400; k++)
        for (int i = 0; i < 48; i++)
            trace += x[((size_t)k * 48 + (size_t)i) * 48 + (size_t)i] / 400;
    CHECK(fabs(trace - 2) < 0.6);
    CHECK(eqnn_group_sample(s, "large", 2, x) && eqnn_group_sample_published(s, "large", 2, x));
    for (int i = 0; i < 300; i++) {
        double row = 0, col = 0;
        for (int j = 0; j < 300; j++) { row += x[i * 300 + j]; col += x[j * 300 + i]; }
        CHECK(row == 1 && col == 1);
    }
    eqnn_memory m = eqnn_memory_use(c);
    CHECK(m.lasting < 4000000);
    const eqnn_rep *maps = eqnn_rep_make(c, "V >> V", s);
    CHECK(eqnn_rep_size(maps) == 90000);
    free(x);
}

/* Samples depend on name and tick, not on what was drawn before. */
TEST(samples_repeat)
{
    eqnn_ctx *c = test_context();
    const eqnn_group *g = eqnn_group_make(c, "SO(3)");
    double a[9], b[9], e[9];
    eqnn_group_sample(g, "a", 1, a);
    eqnn_group_sample(g, "b", 1, e);
    eqnn_group_sample(g, "a", 1, b);
    CHECK(!memcmp(a, b, sizeof a));
    CHECK(memcmp(a, e, sizeof a));
    eqnn_reset(c);
    eqnn_group_sample(g, "a", 1, b);
    CHECK(memcmp(a, b, sizeof a));
}

/* The order of types does not change from build to build, nor with who was made first. */
TEST(order_of_types_is_fixed)
{
    eqnn_ctx *c = test_context();
    const eqnn_rep *r = eqnn_rep_make(
        c, "V(S(3)).T*V(SO(3)) + V(O13).T + V(O13) + V(U(2)xZ(2))*V(U(2)xZ(2)).T", NULL);
    CHECK(!eqnn_rep_label(r));
    CHECK_ERROR(c, "complex");
    r = eqnn_rep_make(c, "V(O13).T*V(O13) + V(S(3)) + V(SL(3)).T + V(O(3)) + V(SL(3)) + 1", NULL);
    CHECK_TEXT(eqnn_rep_label(r)->name,
               "1x0e+1xV(SL(3))+1xV(SL(3)).T+1xV(O(3))+1xV(S(3))+1xV(O13)*V(O13).T");
}

TEST(own_groups_are_checked)
{
    eqnn_ctx *c = test_context();
    double one[4] = { 1, 0, 0, 1 }, flat[4] = { 1, 2, 2, 4 }, none[4] = { 1, 0, 0, 0 }, A[8], h[8];
    eqnn_group_opts o;
    memset(&o, 0, sizeof o);
    CHECK(!eqnn_group_of(c, "mine", NULL));
    CHECK_ERROR(c, "options are missing");
    CHECK(!eqnn_group_of(c, "mine", &o));
    CHECK_ERROR(c, "0 dimensions");
    o.dim = 2;
    o.discrete = 2;
    CHECK(!eqnn_group_of(c, "mine", &o));
    CHECK_ERROR(c, "generators are missing");
    memcpy(h, one, sizeof one);
    memcpy(h + 4, flat, sizeof flat);
    o.generators = h;
    CHECK(!eqnn_group_of(c, "mine", &o));
    CHECK_ERROR(c, "generator 1 has no inverse");
    memcpy(h + 4, none, sizeof none);
    CHECK(!eqnn_group_of(c, "mine", &o));
    CHECK_ERROR(c, "generator 1 has no inverse");
    h[4] = h[7] = 1e-200;
    CHECK(!eqnn_group_of(c, "mine", &o));
    CHECK_ERROR(c, "the largest number of generator 1 is 1e-200");
    h[4] = NAN;
    CHECK(!eqnn_group_of(c, "mine", &o));
    CHECK_ERROR(c, "generator 1 is not finite");
    memset(A, 0, sizeof A);
    A[5] = INFINITY;
    o.discrete = 0;
    o.lie = 2;
    o.lie_generators = A;
    CHECK(!eqnn_group_of(c, "mine", &o));
    CHECK_ERROR(c, "Lie generator 1 is not finite");
    A[5] = 1e-200; /* its square is 0, as if every map commuted with it */
    CHECK(!eqnn_group_of(c, "mine", &o));
    CHECK_ERROR(c, "the largest number of Lie generator 1 is 1e-200");
    A[5] = 1e200;
    CHECK(!eqnn_group_of(c, "mine", &o));
    CHECK_ERROR(c, "the largest number of Lie generator 1 is 1e+200");
    A[5] = 1;
    CHECK(eqnn_group_of(c, "mine", &o) != NULL);
    A[5] = 2;
    CHECK(!eqnn_group_of(c, "mine", &o));
    CHECK_ERROR(c, "belongs to another");
    o.dim = -3;
    CHECK(!eqnn_group_of(c, "mine", &o));
    CHECK_ERROR(c, "-3 dimensions");
}

/* What a name means must not depend on who came first. */
TEST(names_of_groups_are_reserved)
{
    static const double unit[9] = { 1, 0, 0, 0, 1, 0, 0, 0, 1 };
    eqnn_ctx *c = test_context();
    eqnn_group_opts o;
    memset(&o, 0, sizeof o);
    o.dim = 3;
    o.lie = 1;
    o.lie_generators = unit;
    CHECK(!eqnn_group_of(c, "SO(3)", &o));
    CHECK_ERROR(c, "group SO(3): the name belongs to another group");
    CHECK(eqnn_group_lie(eqnn_group_make(c, "SO(3)"), NULL) == 3);
    CHECK(eqnn_group_of(c, "Scaling(3)", &o) == eqnn_group_make(c, "Scaling(3)"));
    CHECK(eqnn_group_of(c, "mine", &o) == eqnn_group_make(c, "mine"));
    CHECK_OK(c);
}

TEST(bad_names_of_groups)
{
    static const char *const bad[][2] = {
        { "Foo(3)", "column 1: expected the name" }, { "", "column 1" },
            { "SO3", "found \"SO3\"" },
        { "SO(3)y", "column 6: expected the end" },  { "SO(3)x", "column 7" },
        { "SO(3", "column 5: expected \",\" or \")\"" }, { "SO()", "whole number" },
        { "SO(0)", "a number from 1 to 30000" },     { "S(3,4,5)", "no more numbers" },
        { "Cube(3)", "no numbers" },                 { "GL(200)", "bytes" },
        { "Embed(SO(2),2,1)", "place 2" },           { "Embed(SO(2),1,0)", "dimensions" },
        { "Embed(SO(2)", "column 12" },              { "ZksZnxZn(3,3)", "2 or 4" },
        { "SO(99999999999)", "smaller" },            { "Real(U(2)", "column 10" },
        { "S(300)xS(400)", "120000 dimensions" },
        { "SO(3,0)", "column 6: expected a number from 1 to 30000, found \"0\"" },
        { "S(100000)", "column 3: expected a number from 1 to 30000" },
        { "DkeR3(0)", "group \"DkeR3(0)\": column 7: expected a number from 1 to 30000" } };
    eqnn_ctx *c = test_context();
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        CHECK(!eqnn_group_make(c, bad[i][0]));
        CHECK_ERROR(c, bad[i][1]);
    }
    CHECK(!eqnn_group_make(c, NULL));
    CHECK_ERROR(c, "column 1");
    CHECK(!eqnn_group_make(NULL, "SO(3)"));
}

/* ---- representations ------------------------------------------------------------------------ */

TEST(sizes_of_expressions)
{
    static const struct { const char *group, *text; int size; } row[] = {
        { "SO(3)", "V", 3 }, { "SO(3)", "Vector", 3 }, { "SO(3)", "Scalar", 1 },
            { "SO(3)", "7", 7 },
        { "SO(3)", "0", 0 }, { "SO(3)", "0*V + V*0", 0 }, { "SO(3)", "V**0", 1 },
            { "SO(3)", "0**0", 1 },
        { "SO(3)", "2**3*V", 24 }, { "SO(3)", "V*2**2", 12 }, { "SO(3)", "(1+2)*V", 9 },
        { "SO(3)", "2+V", 5 }, { "SO(3)", "V >> V*V", 27 }, { "SO(3)", "V << 2*V", 18 },
        { "SO(3)", "V>>(V>>V)", 27 }, { "SO(3)", "V>>V>>2", 18 },
        { "SO(3)", "5(T0+T1)", 20 }, { "SO(3)", "2(T0+T1)+T2+T1", 20 },
        { "SO(4)", "T1+2T2", 36 }, { "SO(4)", "(T0+T3)*T0", 65 },
        { "SO13p", "T2+4T(1,0)+T(0,1)", 36 },
        { "SO13p", "10T0+3T(1,0)+3T(0,1)+T(0,2)+T(2,0)+T(1,1)", 82 },
        { "Sp(2)", "(V+2V**2)*(V.T+1*V).T+V.T", 292 }, { "Sp(2)", "3V**0+V+V*V.T", 23 },
        { "SU(3)", "T(2,0)+T(1,1)+T0+2T(0,1)", 25 }, { "SU(3)", "T(1,1)+V+V.T+T0+T(2,0)+T(0,2)",
        34 },
        { NULL, "2*V(Z(3))*V(S(4))+V(O(3))**2", 33 }, { NULL, "T(1)(SO(3))*T(2)(S(4))", 48 },
        { NULL, "(V+V**2)(SO(3)xS(2)) + 3", 45 }, { NULL, "Scalar + T(0) + 4", 6 },
        { "SO(2)", "psi(1)+psi(2)*psi(0)", 4 }, { "SO(2)", "P*V**2", 4 }, { "S(4)", "P*V", 4 },
        { "SO(3)", "100*V**0+100*V+20*V**2 >> 2", 1160 } };
    eqnn_ctx *c = test_context();
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        const eqnn_group *g = row[i].group ? eqnn_group_make(c, row[i].group) : NULL;
        const eqnn_rep *r = eqnn_rep_make(c, row[i].text, g);
        if (!CHECK(r && eqnn_rep_size(r) == row[i].size)) printf("    %s\n", row[i].text);
        CHECK(r == eqnn_rep_make(c, row[i].text, g));
        CHECK_OK(c);
    }
}

TEST(bad_expressions)
{
    static const char *const bad[][2] = {
        { "V**", "column 4: expected a whole number, found the end" }, { "", "column 1" },
        { "V*V >> ", "column 8" }, { "V+*V", "column 3" },
            { "V(SO(3)", "column 8: expected \")\"" },
        { "W", "column 1" }, { "(V", "column 3" }, { "V)", "column 2: expected an operator" },
        { "T(1,2,3)", "column 7: expected no more numbers" }, { "V V", "column 3" },
            { "V**V", "column 4" },
        { "V**40", "100000000" }, { "psi(2)", "psi(2): SO(3) is not" },
            { "2000000000*V", "components" },
        { "V+V**40", "rep \"V+V**40\": up to column 7: 3 components to the power 40" },
        { "psi(2)+V", "up to column 6: rep psi(2)" }, { "2147483647V", "up to column 1" },
        { "99999999999*V", "smaller" }, { "V(XO(3))", "column 3: expected the name" },
            { "T", "column 2" },
        { "V**-1", "column 4" }, { "T(65)", "64" }, { "V.S", "column 2" }, { "P**65", "64" },
        { "((((((((((((((((((((((((((((((((((((((((((((((((((((V", "fewer parentheses" } };
    eqnn_ctx *c = test_context();
    const eqnn_group *g = eqnn_group_make(c, "SO(3)");
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        CHECK(!eqnn_rep_make(c, bad[i][0], g));
        CHECK_ERROR(c, bad[i][1]);
    }
    CHECK(!eqnn_rep_make(c, "V + V(SO(3))", NULL));
    CHECK_ERROR(c, "column 3: expected a group");
    CHECK(!eqnn_rep_make(c, "P(U(2))", NULL));
    CHECK_ERROR(c, "complex");
    CHECK(!eqnn_rep_make(NULL, "V", g) && !eqnn_rep_sum(NULL, NULL) && !eqnn_rep_vector(NULL));
    CHECK(!eqnn_rep_times(-1, eqnn_rep_vector(g)));
    CHECK_ERROR(c, "-1 times");
    CHECK(!eqnn_rep_tensor(g, 1, -1));
    CHECK_ERROR(c, "T(1,-1)");
    CHECK(!eqnn_rep_scalars(c, -1));
    CHECK_ERROR(c, "-1 scalars");
    CHECK(!eqnn_rep_uniform(g, -1));
    CHECK_ERROR(c, "-1 channels");
}

/* Functions and expressions give the same, and names can be read again. */
static void check_reads_again(eqnn_ctx *c, const eqnn_rep *r, const eqnn_group *g)
{
    const eqnn_rep *again = eqnn_rep_make(c, eqnn_rep_name(r), g);
    if (!CHECK(eqnn_rep_same(r, again))) printf("    %s\n", eqnn_rep_name(r));
}

TEST(functions_and_expressions)
{
    eqnn_ctx *c = test_context();
    const eqnn_group *g = eqnn_group_make(c, "SL(2)"), *s = eqnn_group_make(c, "S(3)");
    const eqnn_rep *V = eqnn_rep_vector(g), *W = eqnn_rep_dual(V), *U = eqnn_rep_vector(s);
    const eqnn_rep *sum = eqnn_rep_sum(eqnn_rep_times(2, V), eqnn_rep_power(W, 2));
    const eqnn_rep *map = eqnn_rep_map(sum, eqnn_rep_sum(V, eqnn_rep_scalars(c, 1)));
    CHECK(eqnn_rep_same(sum, eqnn_rep_make(c, "2*V + V.T**2", g)));
    CHECK(eqnn_rep_same(sum, eqnn_rep_make(c, "2*T(1)+T(0,2)", g)));
    CHECK(eqnn_rep_same(map, eqnn_rep_make(c, "2*V+V.T**2 >> V+1", g)));
    CHECK(eqnn_rep_same(map, eqnn_rep_make(c, "V+1 << 2*V+V.T**2", g)));
    CHECK(!eqnn_rep_same(map, eqnn_rep_make(c, "2*V+V.T**2 >> 1+V", g)));
    CHECK(eqnn_rep_same(eqnn_rep_dual(sum), eqnn_rep_make(c, "2*V.T+V**2", g)));
    CHECK(eqnn_rep_same(eqnn_rep_tensor(g, 1, 1), eqnn_rep_product(V, W)));
    CHECK(eqnn_rep_dual(U) && eqnn_rep_same(eqnn_rep_dual(U), U));
    const eqnn_rep *both = eqnn_rep_product(eqnn_rep_sum(V, W), eqnn_rep_times(2, U));
    CHECK(eqnn_rep_same(both, eqnn_rep_make(c, "(V+V.T)(SL(2))*(2*V(S(3)))", NULL)));
    check_reads_again(c, sum, g);
    check_reads_again(c, map, g);
    check_reads_again(c, eqnn_rep_dual(map), g);
    check_reads_again(c, eqnn_rep_power(sum, 2), g);
    check_reads_again(c, both, NULL);
    check_reads_again(c, eqnn_rep_sum(both, V), g);
    /* instantiating a sum is the sum of the instances */
    CHECK(eqnn_rep_same(eqnn_rep_make(c, "(V + V.T*V)(O13)", NULL),
                        eqnn_rep_make(c, "V(O13) + V.T(O13)*V(O13)", NULL)) == 0);
    eqnn_clear(c);
    CHECK(eqnn_rep_same(eqnn_rep_make(c, "(V + V.T*V)(O13)", NULL),
                        eqnn_rep_make(c, "V(O13) + V(O13).T*V(O13)", NULL)));
}

/* One element of each group that r names. */
typedef struct draw {
    const eqnn_group *group[8];
    double *element[8];
    int n;
} draw;

static void draw_make(const eqnn_rep *r, draw *e)
{
    e->n = eqnn_rep_groups(r, e->group, 8);
    for (int i = 0; i < e->n; i++) {
        e->element[i] = (double *)malloc(square(e->group[i]) * sizeof(double));
        CHECK(eqnn_group_sample(e->group[i], "draw", 1, e->element[i]));
    }
}

static void draw_free(draw *e)
{
    for (int i = 0; i < e->n; i++) free(e->element[i]);
}

static double *matrix_of(const eqnn_rep *r, const draw *e)
{
    size_t n = (size_t)eqnn_rep_size(r);
    double *m = (double *)malloc((n * n + 1) * 2 * sizeof *m);
    if (m) CHECK(eqnn_rep_matrix(r, e->group, (const double *const *)e->element, e->n, m));
    return m;
}

/* rho of a >> b times the entries of W is those of rho_b W rho_a^-1, in the written order. */
static void check_maps(const char *group, const char *a_text, const char *b_text)
{
    eqnn_ctx *c = test_context();
    const eqnn_group *g = group ? eqnn_group_make(c, group) : NULL;
    const eqnn_rep *a = eqnn_rep_make(c, a_text, g), *b = eqnn_rep_make(c, b_text, g);
    const eqnn_rep *map = eqnn_rep_map(a, b), *dual = eqnn_rep_dual(a);
    int n = eqnn_rep_size(a), m = eqnn_rep_size(b);
    draw e;
    draw_make(map, &e);
    double *A = matrix_of(dual, &e), *B = matrix_of(b, &e), *M = matrix_of(map, &e);
    double *W = (double *)malloc((size_t)(n * m) * 6 * sizeof *W), *t = W + n * m, *u = t + n * m;
    double *v = u + n * m, *inverse = (double *)malloc((size_t)(n * n) * sizeof *inverse);
    eqnn_random(c, "W", 1, (size_t)(n * m), W);
    for (int i = 0; i < n * n; i++) inverse[i % n * n + i / n] = A[i]; /* (A^-T)^T = A^-1 */
    times(m, m, n, B, W, t);
    times(m, n, n, t, inverse, u);
    times(n * m, n * m, 1, M, W, v);
    CHECK_NEAR(apart(v, u, (size_t)(n * m)), 0, 1e-11);
    CHECK(eqnn_rep_apply(map, e.group, (const double *const *)e.element, e.n, W, v));
    CHECK_NEAR(apart(v, u, (size_t)(n * m)), 0, 1e-11);
    free(A);
    free(B);
    free(M);
    free(W);
    free(inverse);
    draw_free(&e);
}

TEST(maps_turn_as_maps)
{
    check_maps("SO(3)", "V", "V*V");
    check_maps("O13", "T(1,0)+2", "T(1,1)+V.T");
    check_maps("SL(2)", "2*V+V.T*V", "V*V.T+V+1");
    check_maps("S(4)", "P*V+V**2", "2*V+3");
    check_maps("Sp(1)", "(V+2*V**2)*(V.T+1*V).T+V.T", "3*V**0+V+V*V.T");
    check_maps(NULL, "2*V(Z(3))*V(S(4))+V(O(3))**2", "V(S(4))*V(Z(3))+V(O(3))");
    check_maps(NULL, "V(SO(3))*V(O11)*V(SO(3))", "V(O11).T*V(SO(3))");
}

/* The written order against the matrices' own Kronecker products and direct sums. */
TEST(written_order)
{
    eqnn_ctx *c = test_context();
    const eqnn_group *g = eqnn_group_make(c, "SL(2)");
    const eqnn_rep *r = eqnn_rep_make(c, "(V+V.T)*V + 2*V", g);
    double x[4], y[4], m[144], want[144];
    draw e;
    draw_make(r, &e);
    memcpy(x, e.element[0], sizeof x);
    y[0] = x[3]; y[1] = -x[2]; y[2] = -x[1]; y[3] = x[0]; /* inverse transposed, det 1 */
    memset(want, 0, sizeof want);
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 2; j++)
            for (int k = 0; k < 2; k++)
                for (int l = 0; l < 2; l++) {
                    want[(2 * i + k) * 12 + 2 * j + l] = x[2 * i + j] * x[2 * k + l];
                    want[(4 + 2 * i + k) * 12 + 4 + 2 * j + l] = y[2 * i + j] * x[2 * k + l];
                }
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 2; j++)
            want[(8 + i) * 12 + 8 + j] = want[(10 + i) * 12 + 10 + j] = x[2 * i + j];
    CHECK(eqnn_rep_size(r) == 12);
    CHECK(eqnn_rep_matrix(r, e.group, (const double *const *)e.element, e.n, m));
    CHECK_NEAR(apart(m, want, 144), 0, 1e-12);
    draw_free(&e);
}

/* Complex: rho is a representation and the dual its inverse transposed. */
TEST(complex_representations)
{
    eqnn_ctx *c = test_context();
    const eqnn_group *g = eqnn_group_make(c, "SU(2)");
    const eqnn_rep *r = eqnn_rep_make(c, "V*V.T", g);
    const eqnn_rep *map = eqnn_rep_make(c, "V(SU(2)) * V(SO(3)) + 1", NULL);
    double m[32], id[8] = { 1, 0, 0, 0, 0, 0, 1, 0 }, out[8], v[14], w[14];
    draw e;
    draw_make(r, &e);
    /* the identity matrix is fixed: V g V^-1 = V */
    CHECK(eqnn_rep_apply(r, e.group, (const double *const *)e.element, e.n, id, out));
    CHECK_NEAR(apart(out, id, 8), 0, 1e-13);
    CHECK(eqnn_rep_matrix(r, e.group, (const double *const *)e.element, e.n, m));
    for (int i = 0; i < 8; i++) {
        double sum = 0;
        for (int k = 0; k < 4; k++) sum += m[(i / 2 * 4 + k) * 2 + i % 2] * id[2 * k];
        CHECK_NEAR(sum, id[i], 1e-13);
    }
    CHECK(!eqnn_rep_label(r));
    CHECK_ERROR(c, "complex");
    draw_free(&e);
    draw_make(map, &e);
    eqnn_random(c, "v", 1, 14, v);
    CHECK(eqnn_rep_apply(map, e.group, (const double *const *)e.element, e.n, v, w));
    double before = 0, after = 0;
    for (int i = 0; i < 14; i++) { before += v[i] * v[i]; after += w[i] * w[i]; }
    CHECK_NEAR(after, before, 1e-12); /* unitary */
    CHECK_NEAR(w[13], v[13], 0);
    draw_free(&e);
}

/* ---- representations of one's own ------------------------------------------------------------ */

/* symmetric square of a 2 x 2 matrix on (xx, xy, yy) */
static void square_rho(const double *g, int d, double *out, int dim, const void *user)
{
    double a = g[0], b = g[1], e = g[2], f = g[3];
    const double m[9] = { a * a, 2 * a * b, b * b, a * e, a * f + b * e, b * f, e * e, 2 * e * f,
                          f * f };
    (void)user;
    memcpy(out, m, (size_t)(dim * dim) * sizeof *out * (d == 2));
}

static void square_drho(const double *A, int d, double *out, int dim, const void *user)
{
    double a = A[0], b = A[1], e = A[2], f = A[3];
    const double m[9] = { 2 * a, 2 * b, 0, e, a + f, b, 0, 2 * e, 2 * f };
    (void)user;
    memcpy(out, m, (size_t)(dim * dim) * sizeof *out * (d == 2));
}

static void no_rho(const double *g, int d, double *out, int dim, const void *user)
{
    (void)d;
    (void)user;
    for (int i = 0; i < dim * dim; i++) out[i] = g[i] * g[i];
}

static void cosine(const double *g, int d, double *out, int dim, const void *user)
{
    (void)user;
    *out = 0;
    for (int i = 0; i < d * dim; i++) *out += g[i * (d + 1)] / d;
}

static void same_rho(const double *g, int d, double *out, int dim, const void *user)
{
    (void)user;
    memcpy(out, g, (size_t)(d * dim) * sizeof *out);
}

static void twice(const double *A, int d, double *out, int dim, const void *user)
{
    (void)user;
    for (int i = 0; i < d * dim; i++) out[i] = 2 * A[i];
}

/* In a group of ten elements one random pair in three has a 1 in it and tells nothing: no seed may
   let a false one through. Derivatives are tried, too; high frequencies are no fault. */
TEST(false_representations)
{
    for (int seed = 0; seed < 40; seed++) {
        eqnn_opts o = test_opts();
        o.seed = (uint64_t)seed;
        eqnn_ctx *c = eqnn_make(&o);
        CHECK(!eqnn_rep_define(eqnn_group_make(c, "D(5)"), "w", 1, cosine, NULL, NULL, 0));
        CHECK_ERROR(c, "no representation");
        eqnn_free(c);
    }
    eqnn_ctx *c = test_context();
    const eqnn_group *g = eqnn_group_make(c, "SO(3)");
    CHECK(!eqnn_rep_define(g, "w", 3, same_rho, twice, NULL, 0));
    CHECK_ERROR(c, "drho of Lie generator 0 is not the derivative of rho");
    CHECK(eqnn_rep_size(eqnn_rep_make(c, "psi(1)+psi(100000)", eqnn_group_make(c, "SO(2)"))) == 4);
    CHECK_OK(c);
}

TEST(own_representations)
{
    eqnn_ctx *c = test_context();
    const eqnn_group *g = eqnn_group_make(c, "GL(2)"), *o = eqnn_group_make(c, "O(2)");
    const eqnn_rep *r = eqnn_rep_define(g, "sym2", 3, square_rho, NULL, NULL, 0);
    CHECK(eqnn_rep_size(r) == 3);
    CHECK(r && eqnn_rep_same(r, eqnn_rep_define(g, "sym2", 3, square_rho, square_drho, NULL, 0)));
    CHECK(eqnn_rep_size(eqnn_rep_make(c, "sym2*V + 2*sym2.T", g)) == 12);
    CHECK(eqnn_rep_size(eqnn_rep_make(c, "sym2(GL(2))", NULL)) == 3);
    CHECK(!eqnn_rep_make(c, "sym2", o));
    CHECK_ERROR(c, "column 1: expected a representation that is defined");
    check_maps("GL(2)", "V", "V");
    CHECK(!eqnn_rep_define(g, "bad", 2, no_rho, NULL, NULL, 0));
    CHECK_ERROR(c, "no representation");
    CHECK(!eqnn_rep_define(g, "T", 2, square_rho, NULL, NULL, 0));
    CHECK_ERROR(c, "needs a name");
    CHECK(!eqnn_rep_define(g, "sym2", 0, square_rho, NULL, NULL, 0));
    CHECK_ERROR(c, "0 dimensions");
    CHECK(!eqnn_rep_define(g, "a b", 1, square_rho, NULL, NULL, 0));
    CHECK_ERROR(c, "needs a name");
}

/* ---- tensors with labels --------------------------------------------------------------------- */

TEST(from_rep_and_back)
{
    eqnn_ctx *c = test_context();
    const eqnn_group *g = eqnn_group_make(c, "SL(2)");
    const eqnn_rep *r = eqnn_rep_make(c, "V*(V+V.T) + 2 + (V + 1)*3", g);
    eqnn_tensor *x = test_normal(c, 4, eqnn_rep_size(r)), *y = eqnn_from_rep(x, r);
    CHECK_TEXT(eqnn_rep_label(r)->name, "5x0e+3xV(SL(2))+1xV(SL(2))**2+1xV(SL(2))*V(SL(2)).T");
    CHECK(eqnn_label_of(y) == eqnn_rep_label(r));
    CHECK_SAME(eqnn_to_rep(y, r), x, 0);
    CHECK(eqnn_label_of(eqnn_to_rep(y, r)) == NULL);
    CHECK(eqnn_at(y, 1, 0) == eqnn_at(x, 1, 8) && eqnn_at(y, 1, 2) == eqnn_at(x, 1, 12));
    CHECK(eqnn_at(y, 1, 5) == eqnn_at(x, 1, 10) && eqnn_at(y, 1, 6) == eqnn_at(x, 1, 13));
    CHECK(eqnn_rows(eqnn_from_rep(eqnn_zeros(c, 0, eqnn_rep_size(r)), r)) == 0);
    CHECK(!eqnn_from_rep(test_normal(c, 2, 3), r));
    CHECK_ERROR(c, "which has 19 columns");
    CHECK(!eqnn_from_rep(y, r));
    CHECK_ERROR(c, "already");
    CHECK(!eqnn_to_rep(x, r));
    CHECK_ERROR(c, "not 5x0e");
    CHECK(!eqnn_from_rep(x, NULL));
    CHECK_ERROR(c, "missing");
    const eqnn_rep *none = eqnn_rep_make(c, "0", g);
    CHECK(eqnn_cols(eqnn_to_rep(eqnn_from_rep(eqnn_zeros(c, 3, 0), none), none)) == 0);
}

static eqnn_tensor *there_and_square(eqnn_tensor *const *x, int n, void *user)
{
    const eqnn_rep *r = (const eqnn_rep *)user;
    (void)n;
    eqnn_tensor *y = eqnn_from_rep(x[0], r);
    eqnn_tensor *factors = eqnn_slice(eqnn_as(y, NULL), 0, eqnn_rep_label(r)->copies);
    return eqnn_square(eqnn_to_rep(eqnn_scale_copies(y, factors), r));
}

TEST(conversions_are_differentiable)
{
    eqnn_ctx *c = test_context();
    const eqnn_rep *r = eqnn_rep_make(c, "V*(V+1) + 3", eqnn_group_make(c, "Z(2)"));
    eqnn_tensor *x = test_normal(c, 2, eqnn_rep_size(r));
    CHECK(eqnn_rep_size(r) == 9);
    CHECK_DERIVATIVES_OF(there_and_square, &x, 1, (void *)(size_t)r, 2);
}

/* What does not commute with the group is refused; what permutes components is not. */
TEST(operations_on_labels)
{
    eqnn_ctx *c = test_context();
    const eqnn_rep *r = eqnn_rep_make(c, "2*V", eqnn_group_make(c, "SO(3)"));
    const eqnn_rep *p = eqnn_rep_make(c, "2*V+V**2", eqnn_group_make(c, "S(3)"));
    eqnn_tensor *x = eqnn_from_rep(test_normal(c, 4, 6), r), *y =
        eqnn_from_rep(test_normal(c, 4, 15), p);
    CHECK(!eqnn_silu(x));
    CHECK_ERROR(c, "not invariant");
    CHECK(!eqnn_shift(x, 1));
    CHECK_ERROR(c, "not invariant");
    CHECK(!eqnn_mul(x, x));
    CHECK_ERROR(c, "column by column");
    CHECK(!eqnn_add(x, test_normal(c, 4, 6)));
    CHECK_ERROR(c, "do not turn alike");
    CHECK(!eqnn_square_copies(x));
    CHECK_ERROR(c, "no irreps");
    CHECK(!eqnn_norm(eqnn_from_rep(test_normal(c, 4, 3),
                                   eqnn_rep_vector(eqnn_group_make(c, "SO(3)")))));
    CHECK_ERROR(c, "norm");
    CHECK(!eqnn_sum_cols(y));
    CHECK_ERROR(c, "not invariant");
    CHECK(!eqnn_columns(y, eqnn_ints_make(c, 1, (const int[]){ 0 }, 15, 0)));
    CHECK_ERROR(c, "not invariant");
    CHECK(!eqnn_slice(y, 1, 2));
    CHECK_ERROR(c, "cut through");
    CHECK(eqnn_label_of(eqnn_silu(y)) == eqnn_rep_label(p));
    CHECK(eqnn_label_of(eqnn_shift(eqnn_mul(y, y), 2)) == eqnn_rep_label(p));
    CHECK(eqnn_label_of(eqnn_slice(y, 0, 6)) ==
          eqnn_rep_label(eqnn_rep_make(c, "2*V", eqnn_group_make(c, "S(3)"))));
    CHECK_TEXT(eqnn_label_of(eqnn_concat(x, y))->name, "2xV(SO(3))+2xV(S(3))+1xV(S(3))**2");
    CHECK(eqnn_label_of(eqnn_add(x, eqnn_scale(x, 2))) == eqnn_rep_label(r));
}

/* Turned with its label on, or by the matrix of r: the same numbers. */
TEST(tensors_are_turned)
{
    eqnn_ctx *c = test_context();
    const eqnn_group *g = eqnn_group_make(c, "SL(2)");
    const eqnn_rep *r = eqnn_rep_make(c, "V*V.T + 2 + V", g), *p;
    double element[4], rho[64];
    const double *e = element;
    CHECK(eqnn_group_sample(g, "turn", 1, element) && eqnn_rep_matrix(r, &g, &e, 1, rho));
    eqnn_tensor *x = test_normal(c, 5, 8);
    eqnn_tensor *y = eqnn_matmul_t(x, eqnn_from_double(c, 8, 8, rho), 0, 1);
    eqnn_tensor *turned = eqnn_rep_turn(eqnn_from_rep(x, r), &g, &e, 1);
    CHECK(eqnn_label_of(turned) == eqnn_rep_label(r));
    CHECK_SAME(eqnn_to_rep(turned, r), y, test_eps(1e-13, 1e-5));
    CHECK_SAME(eqnn_rep_turn(x, &g, &e, 1), x, 0); /* invariant numbers */
    CHECK(!eqnn_rep_permutation(r));
    p = eqnn_rep_make(c, "V**2 + 3*V.T + 1", eqnn_group_make(c, "S(4)"));
    CHECK(eqnn_rep_permutation(p) && !eqnn_rep_permutation(NULL));
}

/* v |v|^2 and the cross product of pairs; wrong: v on top of ones */
static eqnn_tensor *good_function(eqnn_tensor *const *x, int n, void *user)
{
    (void)user;
    eqnn_tensor *a = eqnn_as(x[0], NULL), *y = eqnn_mul(a, eqnn_sum_cols(eqnn_square(a)));
    return eqnn_concat(eqnn_as(y, eqnn_label_of(x[0])), n > 1 ? eqnn_tanh(x[1]) : x[0]);
}

static eqnn_tensor *bad_function(eqnn_tensor *const *x, int n, void *user)
{
    (void)n;
    (void)user;
    return eqnn_as(eqnn_shift(eqnn_as(x[0], NULL), 1), eqnn_label_of(x[0]));
}

TEST(checker)
{
    eqnn_ctx *c = test_context();
    const eqnn_rep *v = eqnn_rep_make(c, "V", eqnn_group_make(c, "O(3)"));
    const eqnn_rep *s = eqnn_rep_make(c, "V*V+3", eqnn_group_make(c, "S(4)"));
    eqnn_tensor *x[2];
    double most;
    x[0] = eqnn_from_rep(test_normal(c, 5, 3), v);
    x[1] = eqnn_from_rep(test_normal(c, 5, 19), s);
    double error = eqnn_rep_check(good_function, x, 2, NULL, 5, &most);
    test_note("equivariance error %.2e, %.2e", error, most);
    CHECK_NEAR(error, 0, test_eps(1e-13, 1e-6));
    CHECK(most > 0 && most < test_eps(1e-12, 1e-4));
    CHECK(eqnn_rep_check(bad_function, x, 1, NULL, 5, NULL) > 0.1);
    x[0] = test_features(c, 2, "1x1o");
    CHECK(isnan(eqnn_rep_check(good_function, x, 1, NULL, 1, NULL)));
    CHECK_ERROR(c, "no representation of a matrix group");
    x[0] = eqnn_from_rep(test_normal(c, 0, 3), v);
    CHECK_NEAR(eqnn_rep_check(good_function, x, 1, NULL, 2, NULL), 0, 0);
}

/* ---- uniform --------------------------------------------------------------------------------- */

TEST(uniform_fills_channels)
{
    eqnn_ctx *c = test_context();
    static const char *const names[] = { "SO(3)", "O13", "SU(3)", "S(5)", "Scaling(1)",
                                         "Trivial(1)" };
    for (int i = 0; i < 6; i++)
        for (int n = 0; n < 400; n = n * 3 + 1) {
            const eqnn_rep *r = eqnn_rep_uniform(eqnn_group_make(c, names[i]), n);
            CHECK(r && eqnn_rep_size(r) == n);
        }
    CHECK(eqnn_rep_gates(eqnn_rep_make(c, "3+V+2*V*V", eqnn_group_make(c, "SO(3)"))) == 3);
    CHECK(eqnn_rep_gates(eqnn_rep_make(c, "3+V+2*V*V", eqnn_group_make(c, "S(3)"))) == 0);
    CHECK_TEXT(eqnn_rep_name(eqnn_rep_uniform(eqnn_group_make(c, "O13"), 100)),
               eqnn_rep_name(eqnn_rep_uniform(eqnn_group_make(c, "Lorentz"), 100)));
}

/* Elements missing or of the wrong group, null pointers. */
TEST(bad_elements)
{
    eqnn_ctx *c = test_context();
    const eqnn_group *g = eqnn_group_make(c, "SO(3)"), *s = eqnn_group_make(c, "S(3)");
    const eqnn_rep *r = eqnn_rep_make(c, "V+1", g);
    double x[9], y[16];
    const double *e[1];
    e[0] = x;
    CHECK(eqnn_group_sample(g, "x", 1, x));
    CHECK(!eqnn_rep_matrix(r, &s, e, 1, y));
    CHECK_ERROR(c, "no element of SO(3)");
    CHECK(!eqnn_rep_apply(r, NULL, NULL, 0, x, y));
    CHECK_ERROR(c, "no element of SO(3)");
    CHECK(!eqnn_group_sample(g, "x", -1, x));
    CHECK_ERROR(c, "-1 elements");
    CHECK(!eqnn_group_sample(g, "x", 1, NULL));
    CHECK_ERROR(c, "no place");
    CHECK(eqnn_group_sample(g, "x", 0, NULL));
    CHECK(!eqnn_rep_matrix(r, &g, NULL, 1, y) || y[0] != y[0]);
    CHECK_ERROR(c, "no element of SO(3)");
    CHECK(!eqnn_rep_matrix(r, &g, e, 1, NULL) && !eqnn_rep_groups(r, NULL, 3));
    CHECK_ERROR(c, "rep_matrix: the place for the matrix is missing");
    CHECK(!eqnn_rep_apply(r, &g, e, 1, NULL, y));
    CHECK_ERROR(c, "rep_apply: the vectors are missing");
    CHECK(!eqnn_rep_uniform_n(NULL, 2, 10));
    CHECK(!eqnn_rep_bilinear(test_features(c, 2, "1x1o"), "b", eqnn_rep_label(r), NULL));
    CHECK_ERROR(c, "rep_bilinear");
    CHECK(!eqnn_group_sample(NULL, "x", 1, x) && eqnn_rep_size(NULL) == 0 && !eqnn_rep_label(NULL));
    memset(x, 0, sizeof x);
    CHECK(!eqnn_rep_matrix(eqnn_rep_make(c, "V.T", eqnn_group_make(c, "GL(3)")),
                           &(const eqnn_group *const){ eqnn_group_make(c, "GL(3)") }, e, 1, y));
    CHECK_ERROR(c, "no inverse");
}

/* What a context finds out of a group it keeps with it: a group, representation or label of another
   context may be gone, or at work on another thread. */
TEST(things_of_another_context)
{
    eqnn_ctx *c = test_context(), *away = test_context();
    const eqnn_group *g = eqnn_group_make(c, "SO(3)"), *h = eqnn_group_make(away, "SO(3)");
    const eqnn_rep *v = eqnn_rep_vector(g), *w = eqnn_rep_vector(h);
    const eqnn_group *both[2];
    eqnn_tensor *x = test_normal(c, 2, 3), *y = eqnn_from_rep(x, v);
    eqnn_emlp_opts o;
    both[0] = g, both[1] = h;
    memset(&o, 0, sizeof o);
    CHECK(!eqnn_rep_make(c, "V*V", h));
    CHECK_ERROR(c, "rep: the group belongs to another context");
    CHECK(!eqnn_group_product(g, h));
    CHECK_ERROR(c, "the group belongs to another context");
    CHECK(!eqnn_rep_uniform_n(both, 2, 50));
    CHECK_ERROR(c, "the group belongs to another context");
    CHECK(!eqnn_from_rep(x, w));
    CHECK_ERROR(c, "from_rep: the representation belongs to another context");
    CHECK(!eqnn_to_rep(y, w));
    CHECK_ERROR(c, "to_rep: the representation belongs to another context");
    CHECK(!eqnn_rep_linear(y, "linear", eqnn_rep_label(w), NULL));
    CHECK_ERROR(c, "another context");
    CHECK(!eqnn_rep_bilinear(y, "bilinear", eqnn_rep_label(w), NULL));
    CHECK_ERROR(c, "another context");
    CHECK(!eqnn_rep_gated(c, eqnn_rep_label(w)) && !eqnn_rep_gate(y, eqnn_rep_label(w)));
    CHECK_ERROR(c, "another context");
    CHECK(!eqnn_emlp(x, "net", w, v, g, NULL));
    CHECK_ERROR(c, "emlp in net: the representation belongs to another context");
    CHECK(!eqnn_emlp(x, "net", v, w, g, NULL));
    CHECK_ERROR(c, "emlp in net: the representation belongs to another context");
    CHECK(!eqnn_emlp(x, "net", v, v, h, NULL));
    CHECK_ERROR(c, "emlp in net: the group belongs to another context");
    o.hidden = w;
    CHECK(!eqnn_emlp(x, "net", v, v, NULL, &o));
    CHECK_ERROR(c, "emlp in net: the representation belongs to another context");
    o.hidden = NULL;
    o.hiddens = &w;
    o.layers = 1;
    CHECK(!eqnn_emlp(x, "net", v, v, NULL, &o));
    CHECK_ERROR(c, "emlp in net: the representation belongs to another context");
    CHECK_OK(away);
}

TEST_MAIN
