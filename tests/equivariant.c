/* equivariant.c - harmonics, radial bases, products, messages, linear maps, gates: values against
   loops written out here, derivatives against differences, symmetry under random rotations and
   reflections. */
#include "test.h"

static double eps(void) { return test_eps(1e-12, 2e-5); }

/* --- layout --- */

TEST(e3nn_order)
{
    eqnn_ctx *c = test_context();
    const eqnn_irreps *a = eqnn_irreps_make(c, "2x1o+1x0e+0x3e+2x0o");
    eqnn_tensor *x = test_normal(c, 5, 9), *y = eqnn_from_e3nn(x, a);
    CHECK(eqnn_label_of(y) == a);
    for (int u = 0; u < 2; u++)
        for (int m = 0; m < 3; m++)
            CHECK_NEAR(eqnn_at(y, 1, m * 2 + u), eqnn_at(x, 1, u * 3 + m), 0);
    CHECK_NEAR(eqnn_at(y, 4, 8), eqnn_at(x, 4, 8), 0);
    CHECK_SAME(eqnn_to_e3nn(y), x, 0);
    CHECK(eqnn_label_of(eqnn_to_e3nn(y)) == NULL);
    CHECK_DERIVATIVES(eqnn_to_e3nn, y, 2);
    CHECK(eqnn_rows(eqnn_from_e3nn(eqnn_zeros(c, 0, 9), a)) == 0);
    eqnn_from_e3nn(y, a);
    CHECK_ERROR(c, "already");
    eqnn_from_e3nn(test_normal(c, 2, 3), a);
    CHECK_ERROR(c, "9 columns");
}

static eqnn_tensor *scale_and_square(eqnn_tensor *const *x, int n, void *user)
{
    (void)n, (void)user;
    return eqnn_concat(eqnn_scale_copies(x[0], x[1]), eqnn_square_copies(x[0]));
}

TEST(copies)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *x[2] = { test_features(c, 3, "2x1o+1x0e+3x2e"), NULL };
    x[1] = test_normal(c, 3, 6);
    eqnn_tensor *y = eqnn_scale_copies(x[0], x[1]), *s = eqnn_square_copies(x[0]);
    CHECK(eqnn_label_of(y) == eqnn_label_of(x[0]) && eqnn_label_of(s) == NULL);
    double square = 0;
    for (int m = 0; m < 5; m++) {
        double v = eqnn_at(x[0], 2, 7 + m * 3 + 1);
        CHECK_NEAR(eqnn_at(y, 2, 7 + m * 3 + 1), v * eqnn_at(x[1], 2, 4), eps());
        square += v * v;
    }
    CHECK_NEAR(eqnn_at(s, 2, 4), square, eps());
    CHECK_DERIVATIVES_OF(scale_and_square, x, 2, NULL, 2);
    CHECK_SYMMETRY(scale_and_square, x, 2, NULL);
    x[1] = test_normal(c, 1, 6);
    CHECK_DERIVATIVES_OF(scale_and_square, x, 2, NULL, 2);
    eqnn_scale_copies(x[0], test_normal(c, 3, 5));
    CHECK_ERROR(c, "6 copies");
}

static eqnn_tensor *dots(eqnn_tensor *const *x, int n, void *user)
{
    (void)n, (void)user;
    return eqnn_dot_copies(x[0], x[1]);
}

TEST(dot_copies)
{
    eqnn_ctx *c = test_context();
    const char *of[2] = { "2x1o+1x0o+3x2e", "2x0e+1x0o" };
    for (int k = 0; k < 2; k++) {
        eqnn_tensor *x[2] = { test_features(c, 3, of[k]), NULL };
        x[1] = eqnn_as(test_normal(c, 3, eqnn_cols(x[0])), eqnn_label_of(x[0]));
        eqnn_tensor *d = dots(x, 2, NULL);
        double dot = 0;
        for (int m = 0; m < 5; m++)
            dot += k ? 0 : eqnn_at(x[0], 2, 7 + 3 * m) * eqnn_at(x[1], 2, 7 + 3 * m);
        if (k) dot = eqnn_at(x[0], 2, 2) * eqnn_at(x[1], 2, 2);
        CHECK(eqnn_cols(d) == (k ? 3 : 6) && eqnn_label_of(d) == NULL);
        CHECK_NEAR(eqnn_at(d, 2, k ? 2 : 3), dot, eps());
        CHECK_SAME(eqnn_dot_copies(x[0], x[0]), eqnn_square_copies(x[0]), eps());
        CHECK_DERIVATIVES_OF(dots, x, 2, NULL, 2);
        CHECK_SYMMETRY(dots, x, 2, NULL);
    }
    eqnn_tensor *plain = test_normal(c, 2, 3);
    CHECK_SAME(eqnn_dot_copies(plain, plain), eqnn_square(plain), eps());
    CHECK(eqnn_rows(eqnn_dot_copies(eqnn_zeros(c, 0, 3), eqnn_zeros(c, 0, 3))) == 0);
    eqnn_dot_copies(test_features(c, 2, "1x1o"), test_features(c, 2, "1x1e"));
    CHECK_ERROR(c, "dot_copies: 1x1o [2,3] and 1x1e [2,3] are not of the same kind and size");
    eqnn_dot_copies(test_features(c, 2, "1x1o"), test_features(c, 1, "1x1o"));
    CHECK_ERROR(c, "dot_copies");
}

/* --- harmonics --- */

static const double sqrt15 = 3.8729833462074170;

TEST(harmonics_formulas)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *r = test_normal(c, 20, 3), *Y = eqnn_spherical_harmonics(r, 3, NULL);
    CHECK_TEXT(eqnn_label_of(Y)->name, "1x0e+1x1o+1x2e+1x3o");
    for (int i = 0; i < 20; i++) {
        double x = eqnn_at(r, i, 0), y = eqnn_at(r, i, 1), z = eqnn_at(r, i, 2), q = x * x + z * z;
        const double P[16] = {
            1, sqrt(3.) * x, sqrt(3.) * y, sqrt(3.) * z,
            sqrt15 * x * z, sqrt15 * x * y, sqrt(5.) * (y * y - q / 2), sqrt15 * y * z,
            sqrt15 / 2 * (z * z - x * x),
            sqrt(35 / 8.) * x * (3 * z * z - x * x), sqrt(105.) * x * y * z,
            sqrt(21 / 8.) * x * (4 * y * y - q),
            sqrt(7.) / 2 * y * (2 * y * y - 3 * q), sqrt(21 / 8.) * z * (4 * y * y - q),
            sqrt(105.) / 2 * y * (z * z - x * x), sqrt(35 / 8.) * z * (z * z - 3 * x * x)
        };
        for (int k = 0; k < 16; k++) CHECK_NEAR(eqnn_at(Y, i, k), P[k], eps());
    }
}

typedef struct harmonics_case { int lmax; eqnn_harmonics_opts o; } harmonics_case;

static eqnn_tensor *harmonics(eqnn_tensor *const *x, int n, void *user)
{
    harmonics_case *k = (harmonics_case *)user;
    (void)n;
    return eqnn_spherical_harmonics(x[0], k->lmax, &k->o);
}

TEST(harmonics_sums_and_derivatives)
{
    for (int normalize = 0; normalize < 2; normalize++) {
        for (int kind = 0; kind < 3; kind++) {
            eqnn_ctx *c = test_context();
            harmonics_case k = { 5, { normalize, (eqnn_harmonics_kind)kind } };
            eqnn_tensor *r = test_features(c, 4, "1x1o"), *Y = harmonics(&r, 1, &k);
            for (int i = 0; i < 4; i++) {
                double square = 0, length = 0;
                for (int j = 0; j < 3; j++) length += eqnn_at(r, i, j) * eqnn_at(r, i, j);
                for (int m = 0; m < 11; m++)
                    square += eqnn_at(Y, i, 25 + m) * eqnn_at(Y, i, 25 + m);
                const double want[3] = { 11, 11 / (4 * acos(-1.0)), 1 };
                CHECK_NEAR(square / (normalize ? 1 : pow(length, 5)), want[kind], 10 * eps());
            }
            CHECK_DERIVATIVES_OF(harmonics, &r, 1, &k, 2);
            CHECK_SYMMETRY(harmonics, &r, 1, &k);
            r = test_features(c, 4, "1x1e");
            CHECK_SYMMETRY(harmonics, &r, 1, &k);
            CHECK_TEXT(eqnn_label_of(harmonics(&r, 1, &k))->name, "1x0e+1x1e+1x2e+1x3e+1x4e+1x5e");
        }
    }
}

TEST(harmonics_awkward)
{
    eqnn_ctx *c = test_context();
    const eqnn_real values[9] = { 0, 0, 0, 0, 2, 0, (eqnn_real)1e-30, 0, 0 };
    harmonics_case k = { 4, { 1, EQNN_COMPONENT } };
    eqnn_tensor *r = eqnn_from(c, 3, 3, values), *Y = harmonics(&r, 1, &k);
    CHECK_NEAR(eqnn_at(Y, 0, 0), 1, 0);
    for (int j = 1; j < 25; j++) CHECK_NEAR(eqnn_at(Y, 0, j), 0, 0);
    CHECK_NEAR(eqnn_at(Y, 1, 2), sqrt(3.0), eps());
    eqnn_tensor *g = eqnn_grad(eqnn_sum(eqnn_square(eqnn_as(Y, NULL))), r);
    eqnn_tensor *h = eqnn_grad(eqnn_sum(eqnn_square(g)), r);
    for (int j = 0; j < 3; j++) {
        CHECK_NEAR(eqnn_at(g, 0, j), 0, 0);
        /* |Y| does not depend on the direction: */
        CHECK_NEAR(eqnn_at(g, 1, j), 0, test_eps(1e-12, 1e-4));
        CHECK_NEAR(eqnn_at(h, 0, j), 0, 0);
        CHECK_NEAR(eqnn_at(g, 2, j), 0, 0);
    }
    k.o.normalize = 0;
    Y = harmonics(&r, 1, &k);
    g = eqnn_grad(eqnn_sum(eqnn_as(Y, NULL)), r);
    for (int j = 0; j < 3; j++) CHECK_NEAR(eqnn_at(g, 0, j), sqrt(3.0), eps());
    CHECK(eqnn_rows(eqnn_spherical_harmonics(eqnn_zeros(c, 0, 3), 2, NULL)) == 0);
    k.lmax = 0;
    Y = harmonics(&r, 1, &k);
    CHECK_NEAR(eqnn_value(eqnn_sum(eqnn_grad(eqnn_sum(Y), r))), 0, 0);
    eqnn_spherical_harmonics(eqnn_zeros(c, 2, 4), 1, NULL);
    CHECK_ERROR(c, "vectors");
    eqnn_spherical_harmonics(test_features(c, 2, "3x0e"), 1, NULL);
    CHECK_ERROR(c, "vectors");
    eqnn_spherical_harmonics(r, -1, NULL);
    CHECK_ERROR(c, "degree");
}

/* --- radial bases --- */

typedef struct radial_case { int number; double end; eqnn_radial_opts o; } radial_case;

static eqnn_tensor *radial(eqnn_tensor *const *x, int n, void *user)
{
    radial_case *k = (radial_case *)user;
    (void)n;
    return eqnn_radial_basis(x[0], k->number, k->end, &k->o);
}

/* Beginning elsewhere is the same for lengths as much longer. */
TEST(radial_bases_begin_at_start)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *x = test_uniform(c, 6, 1, 0.2, 1.5);
    for (int basis = EQNN_GAUSSIAN; basis <= EQNN_EXP_NORMAL; basis++) {
        eqnn_radial_opts o = { .basis = (eqnn_basis)basis }, later = o;
        later.start = 0.5;
        if (basis == EQNN_BESSEL) continue; /* over the length itself */
        eqnn_tensor *b = eqnn_radial_basis(eqnn_shift(x, 0.5), 5, 2.5, &later);
        CHECK_SAME(b, eqnn_radial_basis(x, 5, 2, &o), test_eps(1e-14, 1e-5));
    }
}

TEST(radial_bases)
{
    for (int basis = 0; basis < 5; basis++) {
        for (int cutoff = 0; cutoff < 2; cutoff++) {
            eqnn_ctx *c = test_context();
            radial_case k = { 7, 2.5, { 0.5, (eqnn_basis)basis, cutoff, 1 } };
            eqnn_tensor *x = test_uniform(c, 6, 1, 0.9, 2.1), *b = radial(&x, 1, &k);
            CHECK_DERIVATIVES_OF(radial, &x, 1, &k, 2);
            CHECK(eqnn_rows(b) == 6 && eqnn_cols(b) == 7);
            for (int i = 0; basis != EQNN_BESSEL && i < 6; i++) {
                double sum = 0;
                for (int j = 0; j < 7; j++) sum += eqnn_at(b, i, j) * eqnn_at(b, i, j);
                CHECK_NEAR(sum, 1, 0.4); /* e3nn scales them so */
            }
            k.o.unscaled = 0;
            CHECK_SAME(radial(&x, 1, &k), eqnn_scale(b, sqrt(7.0)), eps());
            x = eqnn_full(c, 1, 1, 0.5);
            b = radial(&x, 1, &k);
            for (int j = 0; j < 7; j++) {
                CHECK(fabs(eqnn_at(b, 0, j)) < 100);
                if (cutoff && basis > EQNN_COSINE_BASIS) CHECK_NEAR(eqnn_at(b, 0, j), 0, eps());
            }
            x = eqnn_zeros(c, 0, 1);
            CHECK(eqnn_cols(radial(&x, 1, &k)) == 7);
        }
    }
    eqnn_ctx *c = test_context();
    eqnn_radial_basis(eqnn_zeros(c, 2, 2), 3, 1, NULL);
    CHECK_ERROR(c, "lengths");
    eqnn_radial_basis(eqnn_zeros(c, 2, 1), 0, 1, NULL);
    CHECK_ERROR(c, "0 functions");
}

/* --- products --- */

typedef struct product_case {
    const char *in1, *in2, *out;
    eqnn_path path[6];
    int paths;
} product_case;

static const product_case product_cases[] = {
    { "4x0e+3x1o", "2x1o+2x0e", "5x1o+2x0e+1x2e",
      { { 0, 0, 0, EQNN_UVW, 0, 2 }, { 1, 1, 0, EQNN_UVW, 0, 0.5 }, { 1, 0, 1, EQNN_UVW, 0, 0 },
        { 1, 0, 2, EQNN_UVW, 0, 3 } }, 4 },
    { "1x0e+2x1o", "4x1o+5x0e", "2x1o+2x0e+3x2e",
      { { 0, 0, 0, EQNN_UVW, 0, 0 }, { 1, 1, 0, EQNN_UVW, 0, 0 }, { 1, 0, 1, EQNN_UVW, 0, 0 },
        { 1, 0, 2, EQNN_UVW, 0, 0 } }, 4 },
    { "4x0e+3x1o", "1x0e+2x1o", "4x1o+3x0e+3x1e+3x2e",
      { { 0, 1, 0, EQNN_UVU, 0, 1.5 }, { 1, 1, 1, EQNN_UVU, 0, 0 }, { 1, 1, 2, EQNN_UVU, 1, 0 },
        { 1, 1, 3, EQNN_UVU, 0, 0.25 } }, 4 },
    { "2x1o+3x0e", "4x1o", "4x0e+4x1e+4x1o",
      { { 0, 0, 0, EQNN_UVV, 0, 0 }, { 0, 0, 1, EQNN_UVV, 1, 0 },
        { 1, 0, 2, EQNN_UVV, 0, 2 } }, 3 },
    { "3x1o+2x0e", "3x1o+2x2e", "4x0e+2x1e+1x2e+1x2e",
      { { 0, 0, 0, EQNN_UUW, 0, 0 }, { 0, 0, 1, EQNN_UUW, 0, 0 }, { 0, 0, 2, EQNN_UUW, 1, 0 },
        { 1, 1, 3, EQNN_UUW, 0, 4 } }, 4 },
    { "3x1o+2x2e+2x0o", "3x1o+2x1o+2x2o", "3x1e+3x0e+2x1o+2x3o+2x2e",
      { { 0, 0, 0, EQNN_UUU, 0, 0 }, { 0, 0, 1, EQNN_UUU, 1, 3 }, { 1, 1, 2, EQNN_UUU, 0, 0 },
        { 1, 1, 3, EQNN_UUU, 1, 0 }, { 2, 2, 4, EQNN_UUU, 0, 0 } }, 5 },
    { "2x1o+1x0e", "3x1o+2x2e", "6x0e+6x2e+4x1o+4x3o+2x2e",
      { { 0, 0, 0, EQNN_UVUV, 1, 0 }, { 0, 0, 1, EQNN_UVUV, 0, 2 },
        { 0, 1, 2, EQNN_UVUV, 0, 0 }, { 0, 1, 3, EQNN_UVUV, 1, 0 },
        { 1, 1, 4, EQNN_UVUV, 0, 0 } }, 5 },
    { "4x1o", "4x1o", "6x1e+6x0e+6x2e",
      { { 0, 0, 0, EQNN_UVU_LESS, 1, 0 }, { 0, 0, 1, EQNN_UVU_LESS, 0, 0 },
        { 0, 0, 2, EQNN_UVU_LESS, 0, 2 } }, 3 },
    { "4x1o", "4x1o", "3x1e+2x0e+5x2e",
      { { 0, 0, 0, EQNN_U_LESS_VW, 0, 0 }, { 0, 0, 1, EQNN_U_LESS_VW, 0, 0 },
        { 0, 0, 2, EQNN_U_LESS_VW, 0, 0.5 } }, 3 },
    { "4x0e+2x1o", "1x0e+1x1o+4x0e", "4x0e+2x1o+8x0e",
      { { 0, 0, 0, EQNN_UVU, 0, 0 }, { 0, 2, 0, EQNN_UUU, 0, 0 }, { 1, 1, 0, EQNN_UVW, 0, 0 },
        { 1, 0, 1, EQNN_UVU, 0, 0 }, { 0, 1, 1, EQNN_UVW, 0, 0 },
        { 0, 0, 0, EQNN_UVU, 0, -1 } }, 6 },
    { "20x0e+3x1o", "2x0e+0x1o+1x1o", "5x0e+20x0e+0x1o+17x1o",
      { { 0, 0, 0, EQNN_UVW, 0, 0 }, { 0, 0, 1, EQNN_UVU, 0, 0 }, { 0, 2, 3, EQNN_UVW, 0, 0 },
        { 1, 0, 2, EQNN_UVW, 0, 0 }, { 0, 1, 3, EQNN_UVW, 0, 0 } }, 5 },
    { "2x1o", "2x1o", "3x0e+1x2e", { { 0, 0, 0, EQNN_UVW, 0, 0 } }, 0 },
    /* so few outputs that weights come early, x and then y running */
    { "17x1o+9x0e", "3x1o+2x0e", "1x0e+1x2e+2x1o",
      { { 0, 0, 0, EQNN_UVW, 0, 0 }, { 0, 0, 1, EQNN_UVW, 0, 2 }, { 1, 1, 0, EQNN_UVW, 0, 0 },
        { 0, 1, 2, EQNN_UVW, 0, 0 }, { 1, 0, 2, EQNN_UVW, 0, -1 } }, 5 },
    { "2x0e+3x1o", "9x1o+0x0e+16x0e", "1x1o+2x1o+5x2e+9x1o",
      { { 0, 0, 0, EQNN_UVW, 0, 0 }, { 0, 0, 1, EQNN_UVW, 0, 0 }, { 1, 0, 2, EQNN_UVW, 0, 0.5 },
        { 1, 1, 0, EQNN_UVW, 0, 0 }, { 0, 0, 3, EQNN_UVV, 0, 0 } }, 5 }
};
#define PRODUCTS ((int)(sizeof product_cases / sizeof product_cases[0]))

static const eqnn_product *product_of(eqnn_ctx *c, const product_case *k,
                                      const eqnn_product_opts *o)
{
    return eqnn_product_make(c, eqnn_irreps_make(c, k->in1), eqnn_irreps_make(c, k->in2),
                             eqnn_irreps_make(c, k->out), k->path, k->paths, o);
}

/* One choice of copies: z[w] += scale weight C x[u] y[v] */
static void reference_add(const eqnn_block *x, const eqnn_block *y, const eqnn_block *z,
                          const double *C, double scale, const double *X, const double *Y,
                          double *Z, int u, int v, int w)
{
    for (int i = 0; i < x->type->dim; i++)
        for (int j = 0; j < y->type->dim; j++)
            for (int k = 0; k < z->type->dim; k++)
                Z[z->start + k * z->copies + w] +=
                    scale * C[(i * y->type->dim + j) * z->type->dim + k] *
                    X[x->start + i * x->copies + u] * Y[y->start + j * y->copies + v];
}

/* The table of modes, as loops. W: weights of one row; returns how many the path has. */
static int reference_path(const eqnn_path *p, const eqnn_block *x, const eqnn_block *y,
                          const eqnn_block *z, double scale, const double *X, const double *Y,
                          const double *W, double *Z)
{
    double C[11 * 11 * 11];
    int q = 0, used = 0, nu = x->copies, nv = y->copies, nw = z->copies;
    eqnn_wigner_3j(x->type->l, y->type->l, z->type->l, C);
#define ADD(w, weight)                                                                             \
    do {                                                                                           \
        int at = (weight);                                                                         \
        if (at >= used) used = at + 1;                                                             \
        reference_add(x, y, z, C, p->unweighted ? scale : scale *W[at], X, Y, Z, u, v, w);         \
    } while (0)
    for (int u = 0; u < nu; u++) {
        for (int v = 0; v < nv; v++) {
            if (p->mode == EQNN_UVW) for (int w = 0; w < nw; w++) ADD(w, (u * nv + v) * nw + w);
            if (p->mode == EQNN_UVU) ADD(u, u * nv + v);
            if (p->mode == EQNN_UVV) ADD(v, u * nv + v);
            if (p->mode == EQNN_UVUV) ADD(u * nv + v, u * nv + v);
            if (p->mode == EQNN_UUU && u == v) ADD(u, u);
            if (p->mode == EQNN_UUW && u == v) for (int w = 0; w < nw; w++) ADD(w, u * nw + w);
            if (p->mode == EQNN_UVU_LESS && u < v) ADD(q, q);
            if (p->mode == EQNN_U_LESS_VW && u < v) for (int w = 0; w < nw; w++) ADD(w, q * nw + w);
            if (u < v) q++;
        }
    }
#undef ADD
    return p->unweighted ? 0 : used;
}

static eqnn_tensor *reference_product(eqnn_tensor *x, eqnn_tensor *y, eqnn_tensor *w,
                                      const product_case *k, const eqnn_product *p)
{
    eqnn_ctx *c = eqnn_context(x);
    const eqnn_label *a = eqnn_label_of(x), *b = eqnn_label_of(y), *o = eqnn_product_out(p);
    double X[100], Y[100], W[2000], Z[100 * 8];
    int rows = eqnn_rows(x);
    memset(Z, 0, sizeof Z);
    for (int r = 0; r < rows; r++) {
        int at = 0;
        for (int j = 0; j < a->cols; j++) X[j] = eqnn_at(x, r, j);
        for (int j = 0; j < b->cols; j++) Y[j] = eqnn_at(y, r, j);
        for (int j = 0; j < eqnn_cols(w); j++) W[j] = eqnn_at(w, eqnn_rows(w) > 1 ? r : 0, j);
        for (int i = 0; i < k->paths; i++) {
            const eqnn_path *t = &k->path[i];
            eqnn_path told;
            int first, shape[3];
            CHECK(eqnn_product_path(p, i, &told, &first, shape) && told.mode == t->mode);
            CHECK(told.i1 == t->i1 && told.i2 == t->i2 && told.io == t->io);
            CHECK(first == (t->unweighted ? -1 : at));
            int used = reference_path(t, &a->block[t->i1], &b->block[t->i2], &o->block[t->io],
                                      eqnn_product_coefficient(p, i), X, Y, W + at,
                                      Z + r * o->cols);
            CHECK(shape[0] * shape[1] * shape[2] == used);
            at += used;
        }
    }
    return eqnn_from_double(c, rows, o->cols, Z);
}

static eqnn_tensor *product(eqnn_tensor *const *x, int n, void *user)
{
    return eqnn_tensor_product(x[0], x[1], n > 2 ? x[2] : NULL, (const eqnn_product *)user);
}

TEST(product_modes)
{
    for (int i = 0; i < PRODUCTS; i++) {
        for (int per_row = 0; per_row < 2; per_row++) {
            eqnn_ctx *c = test_context();
            const product_case *k = &product_cases[i];
            const eqnn_product *p = product_of(c, k, NULL);
            int n = eqnn_product_weights(p) ? 3 : 2;
            eqnn_tensor *x[3] = { test_features(c, 3, k->in1), test_features(c, 3, k->in2), NULL };
            x[2] = n > 2 ? test_normal(c, per_row ? 3 : 1, eqnn_product_weights(p)) : NULL;
            eqnn_tensor *z = product(x, n, (void *)p);
            if (!CHECK_OK(c)) { printf("case %d\n", i); return; }
            CHECK(eqnn_label_of(z) == eqnn_product_out(p));
            CHECK_SAME(z, reference_product(x[0], x[1], x[2], k, p), test_eps(1e-12, 1e-4));
            CHECK_DERIVATIVES_OF(product, x, n, (void *)p, 2);
            CHECK_SYMMETRY(product, x, n, (void *)p);
            CHECK_OK(c);
            for (int b = 0; b < eqnn_product_out(p)->blocks; b++) {
                int reached = 0;
                for (int t = 0; t < k->paths; t++)
                    if (k->path[t].io == b && k->path[t].path_weight >= 0 &&
                        eqnn_label_of(x[0])->block[k->path[t].i1].copies &&
                        eqnn_label_of(x[1])->block[k->path[t].i2].copies &&
                        eqnn_product_out(p)->block[b].copies)
                        reached = 1;
                CHECK(eqnn_product_reaches(p, b) == reached);
            }
            if (test_failures) { printf("    (case %d, per_row %d)\n", i, per_row); return; }
            while (test_context_count > 0) eqnn_free(test_contexts[--test_context_count]);
        }
    }
}

/* One row stretches; no rows are legal. */
TEST(product_rows)
{
    eqnn_ctx *c = test_context();
    const product_case *k = &product_cases[9];
    const eqnn_product *p = product_of(c, k, NULL);
    eqnn_tensor *x[3] = { test_features(c, 1, k->in1), test_features(c, 4, k->in2),
                          test_normal(c, 1, eqnn_product_weights(p)) };
    eqnn_tensor *all =
        eqnn_as(eqnn_stretch(eqnn_as(x[0], NULL), 4, eqnn_cols(x[0])), eqnn_label_of(x[0]));
    CHECK_SAME(product(x, 3, (void *)p), eqnn_tensor_product(all, x[1], x[2], p), eps());
    CHECK_DERIVATIVES_OF(product, x, 3, (void *)p, 2);
    x[1] = test_features(c, 1, k->in2);
    x[2] = test_normal(c, 3, eqnn_product_weights(p));
    CHECK_DERIVATIVES_OF(product, x, 3, (void *)p, 2);
    x[0] = test_features(c, 0, k->in1);
    x[2] = test_normal(c, 1, eqnn_product_weights(p));
    eqnn_tensor *z = product(x, 3, (void *)p);
    CHECK(eqnn_rows(z) == 0 && eqnn_cols(z) == eqnn_product_out(p)->cols);
    CHECK_NEAR(eqnn_value(eqnn_sum(eqnn_grad(eqnn_sum(eqnn_as(z, NULL)), x[2]))), 0, 0);
    x[0] = test_features(c, 2, k->in1);
    x[1] = test_features(c, 3, k->in2);
    product(x, 3, (void *)p);
    CHECK_ERROR(c, "rows");
    eqnn_tensor_product(test_features(c, 3, "6x1o"), x[1], x[2], p);
    CHECK_ERROR(c, "the first factor is 6x1o");
    eqnn_tensor_product(x[0], x[0], NULL, p);
    CHECK_ERROR(c, "the second factor");
    eqnn_tensor_product(x[0], test_features(c, 2, k->in2), NULL, p);
    CHECK_ERROR(c, "none are given");
}

TEST(product_normalisation)
{
    eqnn_ctx *c = test_context();
    const eqnn_irreps *in1 = eqnn_irreps_make(c, "4x0e+3x1o"),
                      *in2 = eqnn_irreps_make(c, "2x1o+2x0e");
    const eqnn_irreps *out = eqnn_irreps_make(c, "5x1o+2x0e");
    const eqnn_path path[2] = { { 0, 0, 0, EQNN_UVW, 0, 2 }, { 1, 1, 0, EQNN_UVW, 0, 0 } };
    const double var1[2] = { 0.5, 1 }, var2[2] = { 2, 1.5 }, var3[2] = { 3, 1 };
    eqnn_product_opts o;
    memset(&o, 0, sizeof o);
    const eqnn_product *p = eqnn_product_make(c, in1, in2, out, path, 2, NULL);
    CHECK_NEAR(eqnn_product_coefficient(p, 0), sqrt(3 * 2 / 14.0), 1e-14);
    CHECK_NEAR(eqnn_product_coefficient(p, 1), sqrt(3 / 14.0), 1e-14);
    CHECK(p == eqnn_product_make(c, in1, in2, out, path, 2, &o));
    o.path_kind = EQNN_PATH, o.irrep_kind = EQNN_IRREP_NORM;
    o.in1_var = var1, o.in2_var = var2, o.out_var = var3;
    const eqnn_product *q = eqnn_product_make(c, in1, in2, out, path, 2, &o);
    CHECK(p != q && q == eqnn_product_make(c, in1, in2, out, path, 2, &o));
    CHECK_NEAR(eqnn_product_coefficient(q, 1), sqrt(3 * 3 / (1.5 * 6 * 2)), 1e-14);
    o.path_kind = EQNN_PLAIN, o.irrep_kind = EQNN_IRREP_PLAIN;
    q = eqnn_product_make(c, in1, in2, out, path, 2, &o);
    CHECK_NEAR(eqnn_product_coefficient(q, 0), sqrt(6.0), 1e-14);
    const eqnn_path odd = { 0, 0, 1, EQNN_UVW, 0, 0 }, many = { 0, 0, 0, EQNN_UVU, 0, 0 },
                    outside = { 0, 2, 0, EQNN_UVW, 0, 0 };
    CHECK(!eqnn_product_make(c, in1, in2, out, &odd, 1, NULL));
    CHECK_ERROR(c, "0e x 1o does not contain 0e");
    CHECK(!eqnn_product_make(c, in1, in2, out, &many, 1, NULL));
    CHECK_ERROR(c, "uvu is not possible for 4, 2 and 5 copies");
    CHECK(!eqnn_product_make(c, in1, in2, out, &outside, 1, NULL));
    CHECK_ERROR(c, "not so many blocks");
}

static eqnn_tensor *fully(eqnn_tensor *const *x, int n, void *user)
{
    (void)n;
    return eqnn_fully_connected(x[0], x[1], "tp", (const char *)user, NULL);
}

TEST(fully_connected)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *x[2] = { test_features(c, 4, "6x0e+5x1o+2x1e"), test_features(c, 4, "3x0e+2x1o") };
    CHECK_DERIVATIVES_OF(fully, x, 2, (void *)"4x0e+2x0o+3x1o+2x2e", 2);
    CHECK_SYMMETRY(fully, x, 2, (void *)"4x0e+2x0o+3x1o+2x2e");
    CHECK(eqnn_parameter(c, "tp.weight") != NULL);
    eqnn_tensor *y[2] = { test_normal(c, 2, 3), test_features(c, 2, "1x1o") };
    eqnn_tensor *z = eqnn_fully_connected(y[0], y[1], "none", "2x2e", NULL);
    CHECK_NEAR(eqnn_value(eqnn_sum(eqnn_square_copies(z))), 0, 0);
    CHECK(eqnn_cols(z) == 10 && !eqnn_parameter(c, "none.weight"));
}

TEST(channelwise)
{
    eqnn_ctx *c = test_context();
    const eqnn_irreps *in = eqnn_irreps_make(c, "4x0e+3x1o"), *Y = eqnn_irreps_spherical(c, 1);
    const eqnn_product *p = eqnn_product_channelwise(c, in, Y, NULL, NULL);
    CHECK_TEXT(eqnn_product_out(p)->name, "4x0e+3x0e+4x1o+3x1o+3x1e+3x2e");
    CHECK(eqnn_product_weights(p) == 20 && eqnn_product_paths(p) == 6);
    CHECK(p == eqnn_product_channelwise(c, in, Y, NULL, NULL));
    p = eqnn_product_channelwise(c, in, Y, eqnn_irreps_make(c, "1x0e+2x1e"), NULL);
    CHECK_TEXT(eqnn_product_out(p)->name, "4x0e+3x0e+3x1e");
    eqnn_tensor *x[3] = { test_features(c, 3, "4x0e+3x1o"), test_features(c, 3, "1x0e+1x1o"),
                          test_normal(c, 3, eqnn_product_weights(p)) };
    CHECK_SYMMETRY(product, x, 3, (void *)p);
    for (int by_output = 0; by_output < 2; by_output++) { /* whose order the weights are in */
        eqnn_product_opts o = { .by_output = by_output };
        int at[8] = { 0 }, rising = 1;
        p = eqnn_product_channelwise(c, in, Y, NULL, &o);
        for (int i = 0; i < eqnn_product_paths(p); i++) {
            eqnn_path path;
            int first;
            CHECK(eqnn_product_path(p, i, &path, &first, NULL));
            at[path.io] = first;
        }
        for (int k = 1; k < 6; k++) rising &= at[k] > at[k - 1];
        CHECK(rising == by_output);
    }
}

/* --- messages --- */

typedef struct message_case {
    const eqnn_product *p;
    const eqnn_graph *g;
    int V, plain;
} message_case;

/* x, y, weights (and V): the form, or gather, product and sum */
static eqnn_tensor *message(eqnn_tensor *const *x, int n, void *user)
{
    message_case *k = (message_case *)user;
    eqnn_tensor *w = n > 2 ? x[2] : NULL, *V = k->V ? x[3] : NULL;
    if (!k->plain) return eqnn_message(x[0], x[1], w, V, k->p, k->g);
    if (V) w = eqnn_matmul(w, V);
    if (w && eqnn_rows(w) == k->g->pairs && eqnn_rows(w) > 1) w = eqnn_take(w, k->g->pair_index);
    return eqnn_scatter(eqnn_tensor_product(eqnn_gather(x[0], k->g), x[1], w, k->p), k->g);
}

static void check_message(eqnn_ctx *c, const product_case *a, const eqnn_graph *g, int weights,
                          int hidden)
{
    const eqnn_product *p = product_of(c, a, NULL);
    message_case k = { p, g, hidden > 0 && eqnn_product_weights(p) > 0, 0 };
    int numel = eqnn_product_weights(p), n = numel ? hidden ? 4 : 3 : 2;
    eqnn_tensor *x[4] = { test_features(c, g->sources, a->in1), test_features(c, g->edges, a->in2),
                          NULL, NULL };
    x[2] = test_normal(c, weights, hidden ? hidden : numel);
    x[3] = test_normal(c, hidden, numel);
    eqnn_tensor *z = message(x, n, &k), *dx[4], *dz[4];
    k.plain = 1;
    eqnn_tensor *y = message(x, n, &k), *G = test_normal(c, eqnn_rows(y), eqnn_cols(y));
    CHECK_SAME(z, y, test_eps(1e-12, 1e-4));
    CHECK(eqnn_label_of(z) == eqnn_product_out(p));
    eqnn_vjps(z, G, x, n, dx);
    eqnn_vjps(y, G, x, n, dz);
    for (int i = 0; i < n; i++) CHECK_SAME(dx[i], dz[i], test_eps(1e-12, 1e-3));
    k.plain = 0;
    if (g->edges > 0) CHECK_DERIVATIVES_OF(message, x, n, &k, 2);
}

TEST(messages)
{
    static const int source[7] = { 0, 1, 1, 2, 2, 0, 3 }, target[7] = { 1, 0, 2, 1, 0, 2, 3 };
    for (int i = 0; i < PRODUCTS; i++) {
        for (int kind = 0; kind < 6; kind++) {
            eqnn_ctx *c = test_context();
            eqnn_graph_opts o;
            memset(&o, 0, sizeof o);
            o.sources = o.targets = 5;
            const eqnn_graph *g = eqnn_graph_make(c, kind == 5 ? 0 : 7, source, target, &o);
            if (!g) return;
            CHECK(kind == 5 || g->pairs == 4);
            const int rows[6] = { g->edges, 1, g->pairs, g->edges, g->pairs, g->edges },
                      hidden[6] = { 0, 0, 0, 3, 4, 2 };
            check_message(c, &product_cases[i], g, rows[kind], hidden[kind]);
            CHECK_OK(c);
            if (test_failures) { printf("    (case %d, weights %d)\n", i, kind); return; }
            while (test_context_count > 0) eqnn_free(test_contexts[--test_context_count]);
        }
    }
}

TEST(message_errors)
{
    eqnn_ctx *c = test_context();
    const int source[2] = { 0, 1 }, target[2] = { 1, 0 };
    eqnn_graph_opts o;
    memset(&o, 0, sizeof o);
    o.targets = 2;
    const eqnn_graph *g = eqnn_graph_make(c, 2, source, target, &o);
    const eqnn_product *p = product_of(c, &product_cases[2], NULL);
    int numel = eqnn_product_weights(p);
    eqnn_tensor *x = test_features(c, 2, product_cases[2].in1),
                *y = test_features(c, 2, product_cases[2].in2);
    eqnn_message(x, test_features(c, 1, product_cases[2].in2), test_normal(c, 2, numel), NULL, p,
                 g);
    CHECK_ERROR(c, "y has 1");
    eqnn_message(x, y, test_normal(c, 3, numel), NULL, p, g);
    CHECK_ERROR(c, "the weights have 3");
    eqnn_message(x, y, test_normal(c, 2, 3), test_normal(c, 4, numel), p, g);
    CHECK_ERROR(c, "h V");
}

/* --- linear maps --- */

static eqnn_tensor *linear(eqnn_tensor *const *x, int n, void *user)
{
    eqnn_irreps_linear_opts o;
    (void)n;
    memset(&o, 0, sizeof o);
    o.biases = 1;
    return eqnn_irreps_linear(x[0], "linear", (const char *)user, &o);
}

static eqnn_tensor *linear_map(eqnn_tensor *const *x, int n, void *user)
{
    eqnn_irreps_linear_opts o;
    memset(&o, 0, sizeof o);
    o.biases = n > 2;
    return eqnn_irreps_map(x[0], x[1], n > 2 ? x[2] : NULL, (const eqnn_irreps *)user, &o);
}

TEST(linear_maps)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *x[3] = { test_features(c, 4, "3x0e+2x1o+4x0e+0x2e+2x2e"), NULL, NULL };
    CHECK_DERIVATIVES_OF(linear, x, 1, (void *)"2x0e+5x1o+1x0e+3x2e+2x0o", 2);
    CHECK_SYMMETRY(linear, x, 1, (void *)"2x0e+5x1o+1x0e+3x2e+2x0o");
    eqnn_tensor *w = eqnn_parameter(c, "linear.weight"), *b = eqnn_parameter(c, "linear.bias");
    CHECK(eqnn_cols(w) == 6 + 3 + 10 + 8 + 4 + 6 && eqnn_cols(b) == 3);
    const eqnn_irreps *out = eqnn_irreps_make(c, "2x0e+5x1o+1x0e+3x2e+2x0o");
    CHECK(eqnn_irreps_map_weights(eqnn_label_of(x[0]), out, NULL) == 37);
    for (int per_row = 0; per_row < 2; per_row++) {
        x[1] = test_normal(c, per_row ? 4 : 1, 37);
        x[2] = test_normal(c, 1, 3);
        eqnn_tensor *y = linear_map(x, 3, (void *)out);
        double scalar = eqnn_at(x[2], 0, 1),
               vector = 0; /* scalar 1 and the y component of vector 3 of row 2 */
        int r = per_row ? 2 : 0;
        for (int u = 0; u < 3; u++)
            scalar += eqnn_at(x[0], 2, u) * eqnn_at(x[1], r, u * 2 + 1) / sqrt(7.0);
        for (int u = 0; u < 4; u++)
            scalar += eqnn_at(x[0], 2, 9 + u) * eqnn_at(x[1], r, 19 + u * 2 + 1) / sqrt(7.0);
        for (int u = 0; u < 2; u++)
            vector += eqnn_at(x[0], 2, 3 + 2 + u) * eqnn_at(x[1], r, 9 + u * 5 + 3) / sqrt(2.0);
        CHECK_NEAR(eqnn_at(y, 2, 1), scalar, eps());
        CHECK_NEAR(eqnn_at(y, 2, 2 + 5 + 3), vector, eps());
        CHECK_DERIVATIVES_OF(linear_map, x, 3, (void *)out, 2);
        CHECK_SYMMETRY(linear_map, x, 3, (void *)out);
    }
    x[0] = test_features(c, 0, "3x0e+2x1o+4x0e+0x2e+2x2e");
    CHECK(eqnn_rows(linear(x, 1, (void *)"2x0e+5x1o+1x0e+3x2e+2x0o")) == 0);
}

TEST(linear_options)
{
    eqnn_ctx *c = test_context();
    const eqnn_irreps *out = eqnn_irreps_make(c, "2x0e+1x1o");
    eqnn_tensor *x = test_features(c, 2, "3x0e+2x0e+1x1e");
    eqnn_irreps_linear_opts o;
    const int path[1][2] = { { 1, 0 } }, wrong[1][2] = { { 2, 0 } }, flag[2] = { 0, 1 };
    memset(&o, 0, sizeof o);
    o.paths = path, o.path_count = 1;
    eqnn_tensor *y = eqnn_irreps_map(x, eqnn_full(c, 1, 4, 1), NULL, out, &o);
    CHECK_NEAR(eqnn_at(y, 1, 1), (eqnn_at(x, 1, 3) + eqnn_at(x, 1, 4)) / sqrt(2.0), eps());
    CHECK_NEAR(eqnn_at(y, 1, 3), 0, 0);
    o.paths = wrong;
    eqnn_irreps_map(x, eqnn_full(c, 1, 2, 1), NULL, out, &o);
    CHECK_ERROR(c, "same irrep");
    memset(&o, 0, sizeof o);
    o.bias_blocks = flag;
    eqnn_irreps_map(x, eqnn_full(c, 1, 10, 1), NULL, out, &o);
    CHECK_ERROR(c, "break the symmetry");
    memset(&o, 0, sizeof o);
    o.path_kind = EQNN_PATH;
    y = eqnn_irreps_map(x, eqnn_full(c, 1, 10, 1), NULL, out, &o);
    double want = (eqnn_at(x, 0, 0) + eqnn_at(x, 0, 1) + eqnn_at(x, 0, 2)) / sqrt(6.0) +
                  (eqnn_at(x, 0, 3) + eqnn_at(x, 0, 4)) / 2;
    CHECK_NEAR(eqnn_at(y, 0, 0), want, eps());
    y = eqnn_irreps_linear(test_features(c, 2, "3x1e"), "nothing", "2x1o", NULL);
    CHECK(eqnn_cols(y) == 6 && eqnn_at(y, 1, 5) == 0 && eqnn_parameter_count(c) == 0);
    eqnn_irreps_map(x, eqnn_full(c, 1, 9, 1), NULL, out, NULL);
    CHECK_ERROR(c, "10 weights");
    eqnn_irreps_linear_opts zero = { .weight = { .kind = EQNN_INIT_ZEROS } };
    eqnn_tensor *nothing = eqnn_irreps_linear(eqnn_as(test_normal(c, 3, 5), eqnn_irreps_make(c,
                                              "2x0e+1x1o")), "nothing", "3x0e+2x1o", &zero);
    CHECK(eqnn_cols(nothing) == 9);
    CHECK(eqnn_value(eqnn_sum(eqnn_square(eqnn_as(nothing, NULL)))) == 0);
}

/* --- activations and gates --- */

static eqnn_tensor *gate(eqnn_tensor *const *x, int n, void *user)
{
    (void)n;
    return eqnn_gate(x[0], (const eqnn_gate_spec *)user);
}

TEST(gates)
{
    eqnn_ctx *c = test_context();
    const eqnn_act scalars[3] = { EQNN_SILU, EQNN_RELU, EQNN_TANH },
                   gates[3] = { EQNN_SIGMOID, EQNN_TANH, EQNN_GELU };
    eqnn_gate_spec s;
    memset(&s, 0, sizeof s);
    s.scalars = eqnn_irreps_make(c, "2x0e+2x0e+1x0o");
    s.gates = eqnn_irreps_make(c, "2x0e+1x0o+2x0e");
    s.gated = eqnn_irreps_make(c, "3x1o+1x0o+1x2o");
    s.act_scalars = scalars;
    s.act_gates = gates;
    const eqnn_irreps *in = eqnn_gate_in(c, &s);
    CHECK_TEXT(in->name, "3x0o+8x0e+3x1o+1x2o");
    eqnn_tensor *x = test_features(c, 3, in->name), *y = eqnn_gate(x, &s);
    CHECK_TEXT(eqnn_label_of(y)->name, "2x0e+2x0e+1x0o+2x1o+1x1e+1x0o+1x2o");
    double gated =
        eqnn_at(x, 1, 11 + 1 * 3 + 2) * tanh(eqnn_at(x, 1, 1)) * eqnn_moment(c, EQNN_TANH, 0, 0);
    CHECK_NEAR(eqnn_at(y, 1, 5 + 6 + 1), gated, eps()); /* y component of the 1e, gate 0o */
    CHECK_DERIVATIVES_OF(gate, &x, 1, &s, 2);
    CHECK_SYMMETRY(gate, &x, 1, &s);
    x = test_features(c, 0, in->name);
    CHECK(eqnn_rows(eqnn_gate(x, &s)) == 0);
    eqnn_gate(test_features(c, 2, "19x0e"), &s);
    CHECK_ERROR(c, "3x0o+8x0e+3x1o+1x2o");
    s.gates = eqnn_irreps_make(c, "2x0e+1x0o");
    CHECK(!eqnn_gate_in(c, &s));
    CHECK_ERROR(c, "3 gates");
    s.gates = s.gated = eqnn_irreps_make(c, "");
    x = test_features(c, 3, "1x0o+4x0e");
    CHECK_TEXT(eqnn_label_of(eqnn_gate(x, &s))->name, "2x0e+2x0e+1x0o");
}

/* Irreps that are not given are empty, as e3nn's "". */
TEST(gates_of_parts)
{
    eqnn_ctx *c = test_context();
    const eqnn_act act = EQNN_SILU;
    eqnn_tensor *x = test_features(c, 3, "2x0e+2x1o");
    eqnn_gate_spec s;
    memset(&s, 0, sizeof s);
    CHECK(eqnn_gate_in(c, &s)->cols == 0 && eqnn_cols(eqnn_gate(eqnn_zeros(c, 3, 0), &s)) == 0);
    s.gates = eqnn_irreps_make(c, "2x0e");
    s.gated = eqnn_irreps_make(c, "2x1o");
    CHECK(!eqnn_gate(x, &s));
    CHECK_ERROR(c, "acts are missing (NULL), one for each block of gates");
    s.act_gates = &act;
    CHECK_TEXT(eqnn_label_of(eqnn_gate(x, &s))->name, "2x1o");
    CHECK_SYMMETRY(gate, &x, 1, &s);
    memset(&s, 0, sizeof s);
    s.scalars = eqnn_irreps_make(c, "2x0e");
    s.act_scalars = &act;
    x = test_features(c, 3, "2x0e");
    for (s.exact = 0; s.exact < 2; s.exact++)
        CHECK_SAME(eqnn_as(eqnn_gate(x, &s), NULL),
                   eqnn_as(eqnn_activation(x, &act, s.exact), NULL), 0);
    CHECK(!eqnn_gate(x, NULL) && !eqnn_gate_in(c, NULL));
    CHECK_ERROR(c, "gate: the spec is missing");
}

static eqnn_tensor *activation(eqnn_tensor *const *x, int n, void *user)
{
    static const eqnn_act acts[5] = { EQNN_SILU, EQNN_TANH, EQNN_IDENTITY, EQNN_COS, EQNN_COS };
    (void)n, (void)user;
    return eqnn_activation(x[0], acts, 0);
}

TEST(activations)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *x = test_features(c, 4, "3x0e+2x0o+2x1o+2x0o+1x0e"), *y = activation(&x, 1, NULL);
    CHECK_TEXT(eqnn_label_of(y)->name, "3x0e+2x0o+2x1o+2x0e+1x0e");
    CHECK_NEAR(eqnn_at(y, 3, 12), cos(eqnn_at(x, 3, 12)) * 1.326609063570005, eps());
    CHECK_NEAR(eqnn_at(y, 3, 7), eqnn_at(x, 3, 7), 0);
    CHECK_DERIVATIVES_OF(activation, &x, 1, NULL, 2);
    CHECK_SYMMETRY(activation, &x, 1, NULL);
    const eqnn_act silu = EQNN_SILU;
    eqnn_activation(test_features(c, 2, "8x1o"), &silu, 0);
    CHECK_ERROR(
        c, "8x1o is not invariant; a pointwise function would break the symmetry; use eqnn_gate");
    x = eqnn_enter(test_features(c, 2, "3x0o"), "conv1");
    eqnn_activation(x, &silu, 0);
    CHECK_ERROR(c, "in conv1: 3x0o changes sign");
}

TEST(moments)
{
    eqnn_ctx *c = test_context();
    CHECK_NEAR(eqnn_moment(c, EQNN_SILU, 0, 0), 1.6791767923989418, 1e-15);
    CHECK_NEAR(eqnn_moment(c, EQNN_SILU, 0, 1), 1.6765324703, 1e-10);
    CHECK_NEAR(eqnn_moment(c, EQNN_TANH, 0, 1), 1.5925374197, 1e-10);
    CHECK_NEAR(eqnn_moment(c, EQNN_SIGMOID, 0, 1), 1.8462285453, 1e-10);
    CHECK_NEAR(eqnn_moment(c, EQNN_RELU, 0, 1), sqrt(2.0), 1e-13);
    CHECK_NEAR(eqnn_moment(c, EQNN_SSP, 0, 1), 1.8755962561, 1e-10);
    CHECK_NEAR(eqnn_moment(c, EQNN_ELU, 1, 1), 1.2451983007, 1e-10);
    CHECK_NEAR(eqnn_moment(c, EQNN_LEAKY_RELU, 0.01, 1), sqrt(2 / 1.0001), 1e-13);
    CHECK_NEAR(eqnn_moment(c, EQNN_GELU, 0, 1), 1.5335304412, 1e-10);
    CHECK_NEAR(eqnn_moment(c, EQNN_POW, 2, 1), 1 / sqrt(3.0), 1e-13);
    CHECK_NEAR(eqnn_moment(c, EQNN_COS, 0, 1), 1.3272506003, 1e-10);
    CHECK_NEAR(eqnn_moment(c, EQNN_IDENTITY, 0, 1), 1, 0);
    CHECK_NEAR(eqnn_moment(c, EQNN_EXP, 0, 0), exp(-1.0), 1e-13);
    eqnn_moment(c, EQNN_LOG, 0, 0);
    CHECK_ERROR(c, "second moment");
}

static eqnn_tensor *fc(eqnn_tensor *const *x, int n, void *user)
{
    (void)n;
    return eqnn_fc(x[0], "fc", "6,5,3", (const eqnn_fc_opts *)user);
}

TEST(fully_connected_net)
{
    eqnn_ctx *c = test_context();
    eqnn_fc_opts o;
    memset(&o, 0, sizeof o);
    eqnn_tensor *x = test_normal(c, 7, 4), *y = fc(&x, 1, &o), *h = x;
    for (int i = 0; i < 3; i++) {
        h = eqnn_matmul(h, eqnn_parameter(c, eqnn_format(c, "fc.layer%d.weight", i)));
        h = eqnn_scale(h, 1 / sqrt(i == 0 ? 4.0 : i == 1 ? 6.0 : 5.0));
        if (i < 2) h = eqnn_scale(eqnn_silu(h), 1.6791767923989418);
    }
    CHECK_SAME(y, h, eps());
    CHECK_DERIVATIVES_OF(fc, &x, 1, &o, 2);
    o.out_act = 1;
    o.act = EQNN_TANH;
    o.variance_in = 2;
    o.variance_out = 0.5;
    CHECK_DERIVATIVES_OF(fc, &x, 1, &o, 2);
    eqnn_fc(x, "bad", "6,x", NULL);
    CHECK_ERROR(c, "no list of sizes");
    eqnn_fc(test_features(c, 2, "1x1o"), "bad", "6", NULL);
    CHECK_ERROR(c, "not invariant");
}

/* --- large degrees --- */

static eqnn_tensor *large_product(eqnn_tensor *const *x, int n, void *user)
{
    return n == 3 ? eqnn_tensor_product(x[0], x[1], x[2], (const eqnn_product *)user) : NULL;
}

/* Above degree 3 the kernels take a path in pieces: values by the sum that defines them. */
TEST(large_degrees)
{
    static const int sizes[3][3] = { { 4, 5, 6 }, { 8, 3, 7 }, { 9, 9, 8 } };
    eqnn_ctx *c = test_context();
    for (int k = 0; k < 3; k++) {
        const int *l = sizes[k], d1 = 2 * l[0] + 1, d2 = 2 * l[1] + 1, d3 = 2 * l[2] + 1, U = 21;
        eqnn_tensor *x[3], *z, *want;
        double *C = (double *)malloc((size_t)(d1 * d2 * d3) * sizeof *C);
        double *v = (double *)calloc((size_t)(40 * d3 * U), sizeof *v);
        x[0] = test_features(c, 40, eqnn_format(c, "%dx%de", U, l[0]));
        x[1] = test_features(c, 40, eqnn_format(c, "1x%de", l[1]));
        x[2] = test_normal(c, 40, U);
        const eqnn_irreps *out = eqnn_irreps_make(c, eqnn_format(c, "%dx%de", U, l[2]));
        const eqnn_product *p = eqnn_product_channelwise(c, eqnn_label_of(x[0]),
                                                         eqnn_label_of(x[1]), out, NULL);
        eqnn_wigner_3j(l[0], l[1], l[2], C);
        for (int n = 0; n < 40 * d1 * d2 * d3; n++) {
            int r = n / (d1 * d2 * d3), i = n / (d2 * d3) % d1, j = n / d3 % d2, o = n % d3;
            double c_yw = C[n % (d1 * d2 * d3)] * eqnn_at(x[1], r, j);
            for (int u = 0; u < U && fabs(c_yw) > 0; u++)
                v[(r * d3 + o) * U + u] += eqnn_product_coefficient(p, 0) * c_yw *
                                           eqnn_at(x[0], r, i * U + u) * eqnn_at(x[2], r, u);
        }
        z = large_product(x, 3, (void *)(uintptr_t)p);
        want = eqnn_from_double(c, 40, d3 * U, v);
        CHECK_SAME(eqnn_as(z, NULL), want, test_eps(1e-13, 1e-5));
        if (k == 0) CHECK_DERIVATIVES_OF(large_product, x, 3, (void *)(uintptr_t)p, 2);
        free(C);
        free(v);
    }
    CHECK_OK(c);
}

/* --- memory --- */

/* After the first steps nothing new is kept. */
TEST(steady_state)
{
    eqnn_ctx *c = test_context();
    const int source[2] = { 0, 1 }, target[2] = { 1, 0 };
    size_t lasting = 0;
    eqnn_graph_opts o;
    memset(&o, 0, sizeof o);
    o.targets = 2;
    for (int step = 0; step < 4; step++) {
        const eqnn_graph *g = eqnn_graph_make(c, 2, source, target, &o);
        eqnn_tensor *r = eqnn_normal(c, "r", 2, 3), *Y = eqnn_spherical_harmonics(r, 2, NULL);
        eqnn_tensor *x = eqnn_irreps_linear(eqnn_scatter(Y, g), "a", "4x0e+3x1o", NULL);
        const eqnn_product *p =
            eqnn_product_channelwise(c, eqnn_label_of(x), eqnn_label_of(Y), NULL, NULL);
        eqnn_tensor *w =
            eqnn_fc(eqnn_norm(r), "fc", eqnn_format(c, "5,%d", eqnn_product_weights(p)), NULL);
        x = eqnn_message(x, Y, w, NULL, p, g);
        x = eqnn_to_e3nn(eqnn_fully_connected(x, eqnn_scatter(Y, g), "b", "2x0e+1x1o", NULL));
        eqnn_backward(eqnn_add(eqnn_sum(x), eqnn_sum(eqnn_square(eqnn_grad(eqnn_sum(x), r)))));
        eqnn_zero_gradients(c);
        eqnn_reset(c);
        if (step == 1) lasting = eqnn_memory_use(c).lasting;
    }
    CHECK(eqnn_memory_use(c).lasting == lasting);
}

/* Paths over pairs of copies where there is one copy: zeros, and nothing is reached. */
TEST(no_pairs)
{
    eqnn_ctx *c = test_context();
    const eqnn_irreps *in = eqnn_irreps_make(c, "1x1o"), *out = eqnn_irreps_make(c, "2x1e");
    const eqnn_path path = { 0, 0, 0, EQNN_U_LESS_VW, 0, 0 };
    const eqnn_product *p = eqnn_product_make(c, in, in, out, &path, 1, NULL);
    eqnn_tensor *x = eqnn_as(test_normal(c, 4, 3), in), *y = eqnn_tensor_product(x, x, NULL, p);
    CHECK(!eqnn_product_reaches(p, 0) && eqnn_product_weights(p) == 0);
    CHECK_SAME(eqnn_as(y, NULL), eqnn_zeros(c, 4, 6), 0);
    CHECK_OK(c);
}

/* Labels with equal neighbours are cut as the product has them, in messages too. */
TEST(messages_recut)
{
    eqnn_ctx *c = test_context();
    const eqnn_irreps *a = eqnn_irreps_make(c, "2x0e+2x1o"), *b = eqnn_irreps_make(c, "3x1e+1x1e");
    const eqnn_product *p = eqnn_product_elementwise(c, a, b, NULL, NULL);
    const eqnn_graph *g = eqnn_radius_graph(test_normal(c, 6, 3), 2, NULL);
    eqnn_tensor *x = eqnn_as(test_normal(c, 6, 8), a);
    eqnn_tensor *y = eqnn_as(test_normal(c, g->edges, 12), b);
    eqnn_tensor *z = eqnn_tensor_product(eqnn_gather(x, g), y, NULL, p);
    CHECK(g->edges > 3);
    CHECK_SAME(eqnn_message(x, y, NULL, NULL, p, g), eqnn_scatter(z, g), test_eps(1e-13, 1e-5));
    CHECK_OK(c);
}

/* Copy u with copy u, of every block with every block: weights by in1, in2 and the degree. */
static eqnn_tensor *copies_together(eqnn_tensor *const *x, int n, void *user)
{
    (void)n;
    return eqnn_tensor_product(x[0], x[1], x[2], (const eqnn_product *)user);
}

TEST(channelwise_together)
{
    eqnn_ctx *c = test_context();
    const eqnn_irreps *in = eqnn_irreps_make(c, "2x0e+2x1o");
    eqnn_product_opts o;
    memset(&o, 0, sizeof o);
    o.together = 1;
    const eqnn_product *p = eqnn_product_channelwise(c, in, in, in, &o);
    CHECK(p && p != eqnn_product_channelwise(c, in, in, in, NULL) &&
          p == eqnn_product_channelwise(c, in, in, in, &o));
    CHECK_TEXT(eqnn_product_out(p)->name, "2x0e+2x0e+2x1o+2x1o");
    CHECK(eqnn_product_weights(p) == 8);
    eqnn_tensor *x[3] = { test_features(c, 3, in->name), test_features(c, 3, in->name), NULL };
    x[1] = eqnn_as(test_normal(c, 3, 8), in);
    x[2] = test_normal(c, 1, 8);
    eqnn_tensor *z = eqnn_tensor_product(x[0], x[1], x[2], p);
    eqnn_tensor *dot = eqnn_dot_copies(x[0], x[1]);
    for (int u = 0; u < 2; u++) { /* 0e 0e, 1o 1o to 0e; 0e 1o, 1o 0e to 1o, of which z */
        double s = eqnn_at(x[0], 1, u), t = eqnn_at(x[1], 1, u);
        double v = eqnn_at(x[0], 1, 6 + u), w = eqnn_at(x[1], 1, 6 + u);
        CHECK_NEAR(eqnn_at(z, 1, u), eqnn_at(x[2], 0, u) * s * t, eps());
        CHECK_NEAR(eqnn_at(z, 1, 2 + u),
                   eqnn_at(x[2], 0, 6 + u) * eqnn_at(dot, 1, 2 + u) / sqrt(3), eps());
        CHECK_NEAR(eqnn_at(z, 1, 8 + u), eqnn_at(x[2], 0, 2 + u) * s * w, eps());
        CHECK_NEAR(eqnn_at(z, 1, 14 + u), eqnn_at(x[2], 0, 4 + u) * v * t, eps());
    }
    CHECK_DERIVATIVES_OF(copies_together, x, 3, (void *)p, 2);
    CHECK_SYMMETRY(copies_together, x, 3, (void *)p);
    CHECK(!eqnn_product_channelwise(c, in, eqnn_irreps_make(c, "1x1o"), NULL, &o));
    CHECK_ERROR(c, "uuu");
}

/* What the manual tells of operations that serve other ends too. */
TEST(cosine_cutoff_and_one_hot)
{
    eqnn_ctx *c = test_context();
    const double at[4] = { 0, 0.3, 0.99, 1.2 };
    const int kind[3] = { 2, 0, 2 };
    eqnn_tensor *u = eqnn_from_double(c, 4, 1, at);
    u = eqnn_square(eqnn_map(u, EQNN_COSINE_BUMP, 0, 0));
    for (int k = 0; k < 4; k++)
        CHECK_NEAR(eqnn_at(u, k, 0), k < 3 ? (1 + cos(3.14159265358979 * at[k])) / 2 : 0, eps());
    eqnn_tensor *one = eqnn_put(eqnn_full(c, 3, 1, 1), eqnn_ints_make(c, 3, kind, 3, 0), 3);
    for (int k = 0; k < 9; k++) CHECK_NEAR(eqnn_at(one, k / 3, k % 3), kind[k / 3] == k % 3, 0);
    CHECK_OK(c);
}

/* A bias of the radial functions' last layer: one more row of V, a column of ones in h. */
TEST(message_with_bias)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *pos = test_normal(c, 5, 3);
    const eqnn_graph *g = eqnn_complete_graph(c, 5, NULL);
    eqnn_tensor *Y = eqnn_spherical_harmonics(eqnn_edge_vectors(pos, g), 1, NULL);
    eqnn_tensor *x = test_features(c, 5, "2x0e+3x1o");
    const eqnn_product *p = eqnn_product_channelwise(c, eqnn_label_of(x), eqnn_label_of(Y), NULL,
                                                     NULL);
    eqnn_tensor *h = eqnn_normal(c, "h", g->edges, 4), *one = eqnn_full(c, g->edges, 1, 1);
    eqnn_tensor *V[2] = { eqnn_normal(c, "V", 4, eqnn_product_weights(p)),
                          eqnn_normal(c, "bias", 1, eqnn_product_weights(p)) };
    eqnn_tensor *w = eqnn_add(eqnn_matmul(h, V[0]), V[1]);
    eqnn_tensor *z = eqnn_message(x, Y, eqnn_concat(h, one), eqnn_stack(V, 2), p, g);
    CHECK_SAME(z, eqnn_message(x, Y, w, NULL, p, g), test_eps(1e-13, 1e-5));
    CHECK_OK(c);
}

/* The gradient of plain numbers is plain, whatever labels their views have. */
TEST(gradient_has_the_label_of_x)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *x = test_normal(c, 2, 4);
    eqnn_tensor *y = eqnn_norm_copies(eqnn_from_e3nn(x, eqnn_irreps_make(c, "1x0e+1x1o")));
    eqnn_tensor *dx = eqnn_grad(eqnn_sum(y), x);
    CHECK(dx && !eqnn_label_of(dx) && eqnn_sin(dx));
    CHECK_OK(c);
}

TEST_MAIN
