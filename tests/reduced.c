/* reduced.c - tensors with a symmetry of their indices as irreps, Cartesian tensors, and the
   symmetric contraction (section 11) */
#include "test.h"

/* --- the basis as a dense matrix --- */

typedef struct basis {
    const eqnn_reduced *r;
    int n, rows, d[8], p[8]; /* indices, rows of Q, columns and letters of each index */
    size_t size;             /* numbers in a row */
    double *Q;
} basis;

static basis basis_make(eqnn_ctx *c, const char *formula, const char *irreps,
                        const eqnn_reduced_opts *o)
{
    basis b;
    memset(&b, 0, sizeof b);
    b.r = eqnn_reduced_make(c, formula, irreps, o);
    b.n = eqnn_reduced_indices(b.r);
    b.size = 1;
    for (int s = 0; s < b.n; s++) {
        b.d[s] = eqnn_reduced_in(b.r, s)->cols;
        b.size *= (size_t)b.d[s];
    }
    b.rows = b.r ? eqnn_reduced_out(b.r)->cols : 0;
    b.Q = (double *)calloc((size_t)b.rows * b.size + 1, sizeof(double));
    CHECK(!b.r || eqnn_reduced_basis(b.r, b.Q));
    return b;
}

/* max |Q Q^T - 1| */
static double not_orthonormal(const basis *b)
{
    double worst = 0;
    for (int i = 0; i < b->rows; i++)
        for (int j = 0; j <= i; j++) {
            double sum = 0;
            for (size_t k = 0; k < b->size; k++)
                sum += b->Q[(size_t)i * b->size + k] * b->Q[(size_t)j * b->size + k];
            worst = fmax(worst, fabs(sum - (i == j)));
        }
    return worst;
}

/* max |T[i0, i1, ..] - sign T[i_p[0], i_p[1], ..]| over all rows T of Q */
static double not_symmetric(const basis *b, const int *p, int sign)
{
    double worst = 0;
    int i[8] = { 0 };
    for (size_t k = 0; k < b->size; k++) {
        size_t at = 0;
        for (int s = 0; s < b->n; s++) at = at * (size_t)b->d[s] + (size_t)i[p[s]];
        for (size_t row = 0; row < (size_t)b->rows; row++)
            worst = fmax(worst, fabs(b->Q[row * b->size + k] - sign * b->Q[row * b->size + at]));
        for (int s = b->n - 1; s >= 0 && ++i[s] == b->d[s]; s--) i[s] = 0;
    }
    return worst;
}

/* Every term of a formula against Q. */
static double breaks_formula(const basis *b, const char *formula)
{
    double worst = 0;
    for (const char *at = formula; at; at = strchr(at, '=')) {
        int p[8], sign = 1;
        at += *at == '=';
        if (*at == '-') sign = -1, at++;
        for (int s = 0; s < b->n; s++) p[s] = (int)(strchr(formula, at[s]) - formula);
        worst = fmax(worst, not_symmetric(b, p, sign));
    }
    return worst;
}

/* max |D(out) Q - Q (D x D x ..)| for a random element of O(3) */
static double not_equivariant(eqnn_ctx *c, const basis *b)
{
    double R[9], worst = 0;
    static int serial;
    size_t rows = (size_t)b->rows, after = 1, total = rows * b->size;
    eqnn_rotation_random(c, eqnn_format(c, "turn %d", serial++), 1, R);
    double *turned = (double *)malloc((total + 1) * sizeof(double));
    double *next = (double *)malloc((total + 1) * sizeof(double));
    double *D = (double *)malloc((rows * rows + 1) * sizeof(double));
    memcpy(turned, b->Q, total * sizeof(double));
    for (int s = b->n - 1; s >= 0; s--) {
        size_t d = (size_t)b->d[s];
        double *Ds = (double *)malloc((d * d + 1) * sizeof(double));
        eqnn_irreps_D(eqnn_reduced_in(b->r, s), R, Ds);
        for (size_t k = 0; k < total; k++) {
            size_t j = k / after % d, base = k - j * after;
            next[k] = 0;
            for (size_t i = 0; i < d; i++) next[k] += turned[base + i * after] * Ds[i * d + j];
        }
        memcpy(turned, next, total * sizeof(double));
        after *= d;
        free(Ds);
    }
    eqnn_irreps_D(eqnn_reduced_out(b->r), R, D);
    for (size_t i = 0; i < rows; i++)
        for (size_t k = 0; k < b->size; k++) {
            double sum = 0;
            for (size_t j = 0; j < rows; j++) sum += D[i * rows + j] * b->Q[j * b->size + k];
            worst = fmax(worst, fabs(sum - turned[i * b->size + k]));
        }
    free(turned);
    free(next);
    free(D);
    return worst;
}

static const struct { const char *formula, *irreps, *out; int dim; } cases[] = {
    { "ij=ji", "i=1o", "1x0e+1x2e", 6 },
    { "ij=-ji", "i=1o", "1x1e", 3 },
    { "ijk=jik=ikj", "1o", "1x1o+1x3o", 10 },
    { "ijk=-jik=-ikj", "1o", "1x0o", 1 },
    { "ijkl=jikl=ijlk=klij", "i=1o", "2x0e+2x2e+1x4e", 21 },
    { "ijkl=jikl=ikjl=ijlk", "1e", "1x0e+1x2e+1x4e", 15 },
    { "ij=ji", "2x0e+1o", "4x0e+2x1o+1x2e", 15 },
    { "ijk=jik=ikj", "0e+1o", "2x0e+2x1o+1x2e+1x3o", 20 },
    { "ijk=-jik", "i=2x1e, k=2o", "1x0o+4x1o+5x2o+4x3o+1x4o", 75 },
    { "ij = ij", "i=1o,j=2e", "1x1o+1x2o+1x3o", 15 },
    { "i", "2x1o+0e", "1x0e+2x1o", 7 },
    { "ab", "a=1o,b=1o", "1x0e+1x1e+1x2e", 9 },
    { "ijk=jki", "1o", "1x0o+1x1o+1x3o", 11 },  /* (27 + 2 * 3) / 3 */
    { "abcdef=bacdef=acbdef=abdcef=abcedf=abcdfe", "1o", "1x0e+1x2e+1x4e+1x6e", 28 },
    { "ij=-ij", "1o", "", 0 },
    { "ijk=jik=-ikj=jki", "1o", "", 0 },
    { "ij=ji", "0x1o", "", 0 },
    { "ijkl=-jikl=-ikjl=-ijlk", "1o", "", 0 },      /* 4 antisymmetric indices of dimension 3 */
};

TEST(reduced_bases)
{
    for (size_t k = 0; k < sizeof cases / sizeof cases[0]; k++) {
        eqnn_ctx *c = test_context();
        basis b = basis_make(c, cases[k].formula, cases[k].irreps, NULL);
        CHECK_TEXT(b.r ? eqnn_reduced_out(b.r)->name : NULL, cases[k].out);
        CHECK(b.rows == cases[k].dim);
        CHECK_NEAR(not_orthonormal(&b), 0, 1e-13);
        CHECK_NEAR(breaks_formula(&b, strchr(cases[k].formula, ' ') ? "ij=ij" : cases[k].formula),
                   0, 1e-13);
        CHECK_NEAR(not_equivariant(c, &b), 0, 1e-12);
        CHECK(eqnn_reduced_make(c, cases[k].formula, cases[k].irreps, NULL) == b.r);
        free(b.Q);
    }
}


/* max |a - b| of Q^T Q over rows of the blocks (l, p); l < 0: all */
static double spans_differ(const basis *a, const basis *b, int l, int p)
{
    double worst = 0;
    for (size_t i = 0; i < a->size; i++)
        for (size_t k = 0; k < a->size; k++) {
            double sum[2] = { 0, 0 };
            for (int side = 0; side < 2; side++) {
                const basis *m = side ? b : a;
                const eqnn_irreps *out = eqnn_reduced_out(m->r);
                for (int n = 0; n < out->blocks; n++) {
                    const eqnn_block *block = &out->block[n];
                    if (l >= 0 && (block->type->l != l || block->type->p != p)) continue;
                    int last = block->start + block->copies * block->type->dim;
                    for (int row = block->start; row < last; row++) {
                        const double *q = m->Q + (size_t)row * m->size;
                        sum[side] += q[i] * q[k];
                    }
                }
            }
            worst = fmax(worst, fabs(sum[0] - sum[1]));
        }
    return worst;
}

TEST(reduced_output_filter)
{
    eqnn_ctx *c = test_context();
    eqnn_reduced_opts o = { eqnn_irreps_make(c, "2e+0e+4o"), NULL };
    basis all = basis_make(c, "ij=ji", "2x0e+1o", NULL);
    basis some = basis_make(c, "ij=ji", "2x0e+1o", &o);
    CHECK_TEXT(eqnn_reduced_out(some.r)->name, "4x0e+1x2e");
    CHECK_NEAR(spans_differ(&all, &some, 0, 1), 0, 1e-13);
    CHECK_NEAR(spans_differ(&all, &some, 2, 1), 0, 1e-13);
    CHECK(some.r != all.r && eqnn_reduced_make(c, "ij=ji", "2x0e+1o", &o) == some.r);
    free(all.Q);
    free(some.Q);
}

/* No row may have a part in which i and j couple to a forbidden irrep. */
static double forbidden_part(eqnn_ctx *c, const basis *b, const char *irreps,
                             const char *forbidden)
{
    eqnn_reduced_opts o = { eqnn_irreps_make(c, forbidden), NULL };
    basis pair = basis_make(c, "ij", irreps, &o);
    size_t last = (size_t)b->d[2];
    double worst = 0;
    for (size_t row = 0; row < (size_t)b->rows; row++)
        for (size_t f = 0; f < (size_t)pair.rows; f++)
            for (size_t k = 0; k < last; k++) {
                double sum = 0;
                for (size_t ij = 0; ij < pair.size; ij++)
                    sum += pair.Q[f * pair.size + ij] * b->Q[row * b->size + ij * last + k];
                worst = fmax(worst, fabs(sum));
            }
    free(pair.Q);
    return worst;
}

TEST(reduced_filter_on_the_way)
{
    static const struct { const char *formula, *irreps, *mid, *out, *forbidden; } t[] = {
        { "ijk=jik=ikj", "1o", "0e+1o", "", "1e+2e" }, /* the symmetric 1o needs 2e too */
        { "ijk=jik=ikj", "1o", "0e+1o+2e", "1x1o", "1e" },
        { "ijk=jik=ikj", "1o", "0e+1o+2e+3o", "1x1o+1x3o", "1e" },
        { "ijk=jik=ikj", "0e+1o", "0e+1o", "2x0e+1x1o", "1e+2e" },
        { "ijk", "1o", "0e+1e+1o+2o", "2x1o+1x2o", "2e" },
        { "ijk=jik", "0e+1o+2e", "0e+1o+2e+3o", NULL, "1e+2o+3e+4e" },
    };
    for (size_t k = 0; k < sizeof t / sizeof t[0]; k++) {
        eqnn_ctx *c = test_context();
        eqnn_reduced_opts o = { NULL, eqnn_irreps_make(c, t[k].mid) };
        basis b = basis_make(c, t[k].formula, t[k].irreps, &o);
        if (t[k].out) CHECK_TEXT(b.r ? eqnn_reduced_out(b.r)->name : NULL, t[k].out);
        else CHECK(b.rows > 0);
        CHECK_NEAR(not_orthonormal(&b), 0, 1e-13);
        CHECK_NEAR(breaks_formula(&b, t[k].formula), 0, 1e-13);
        CHECK_NEAR(not_equivariant(c, &b), 0, 1e-12);
        CHECK_NEAR(forbidden_part(c, &b, t[k].irreps, t[k].forbidden), 0, 1e-13);
        free(b.Q);
    }
}

TEST(reduced_is_fast)
{
    eqnn_ctx *c = test_context();
    const eqnn_reduced *r = eqnn_reduced_make(c, "ijk=jik=ikj", "0e+1o+2e+3o", NULL);
    CHECK(eqnn_reduced_out(r) && eqnn_reduced_out(r)->cols == 816); /* 16 * 17 * 18 / 6 */
    r = eqnn_reduced_make(c, "ijkl=jikl=ikjl=ijlk", "0e+1o+2e+3o", NULL);
    CHECK(eqnn_reduced_out(r) && eqnn_reduced_out(r)->cols == 3876);
}

TEST(reduced_bad_input)
{
    static const struct { const char *formula, *irreps, *sentence; } t[] = {
        { "ij=j", "1o", "the terms have different numbers of indices" },
        { "ij=jk", "1o", "an index that the first has not" },
        { "iij=iji", "1o", "an index stands twice in a term" },
        { "ij=jj", "1o", "an index stands twice in a term" },
        { "", "1o", "a term of letters is expected" },
        { "ij=", "1o", "a term of letters is expected" },
        { "=ij", "1o", "a term of letters is expected" },
        { "ij=--ji", "1o", "an index is a letter" },
        { "ij+ji", "1o", "an index is a letter" },
        { "i1", "1o", "an index is a letter" },
        { "abcdefgh", "0e", "more than 7 indices" },
        { "ij=ji", "i=1o,j=2e", "i and j change places, but run over 1x1o and 1x2e" },
        { "ij=ji", "k=1o", "an index that the formula has not" },
        { "ij=ji", "i=1o,i=1o", "given twice" },
        { "ij", "i=1o", "no irreps are given for index j" },
        { "ij=ji", "i=1o,", NULL },
        { "ij=ji", "i=1o,,j=1o", "a letter and = are expected" },
        { "ij=ji", "i=1q", "a parity e, o or y is expected" },
        { "ij=ji", "4", "a parity e, o or y is expected" },
        { "ij=ji", "3000x1o", "this is made for at most" },
        { "ij=ji", NULL, "the irreps are missing" },
        { NULL, "1o", "the formula is missing" },
        { "ij", "20e", "degrees above 32 have no table" },
    };
    eqnn_ctx *c = test_context();
    for (size_t k = 0; k < sizeof t / sizeof t[0]; k++) {
        const eqnn_reduced *r = eqnn_reduced_make(c, t[k].formula, t[k].irreps, NULL);
        if (!t[k].sentence) { CHECK(r != NULL); continue; }
        CHECK(r == NULL);
        CHECK_ERROR(c, t[k].sentence);
    }
    CHECK(eqnn_reduced_make(NULL, "ij", "1o", NULL) == NULL);
    CHECK(eqnn_reduced_out(NULL) == NULL && eqnn_reduced_in(NULL, 0) == NULL);
    CHECK(eqnn_reduced_in(eqnn_reduced_make(c, "ij", "1o", NULL), 2) == NULL);
    CHECK(!eqnn_reduced_basis(NULL, NULL) && eqnn_reduced_indices(NULL) == 0);
}

/* --- on vectors --- */

static eqnn_tensor *labelled(eqnn_ctx *c, int rows, const char *irreps)
{
    const eqnn_irreps *a = eqnn_irreps_make(c, irreps);
    return eqnn_as(test_normal(c, rows, a->cols), a);
}

static eqnn_tensor *product_of(eqnn_tensor *const *x, int n, void *user)
{
    (void)n;
    return eqnn_reduced_product(x, (const eqnn_reduced *)user);
}

TEST(reduced_product_values)
{
    eqnn_ctx *c = test_context();
    basis b = basis_make(c, "ijk=-jik", "i=2x0e+1o, k=2x1e", NULL);
    eqnn_tensor *x[3] = { labelled(c, 21, "2x0e+1o"), labelled(c, 1, "2x0e+1o"),
                          labelled(c, 21, "2x1e") };
    eqnn_tensor *z = eqnn_reduced_product(x, b.r), *want = eqnn_zeros(c, 21, b.rows);
    CHECK(eqnn_label_of(z) == eqnn_reduced_out(b.r));
    double *values = (double *)calloc((size_t)(21 * b.rows), sizeof(double));
    for (int row = 0; row < 21; row++)
        for (int o = 0; o < b.rows; o++)
            for (size_t k = 0; k < b.size; k++) {
                double xi = eqnn_at(x[0], row, (int)k / 30), xj = eqnn_at(x[1], 0, (int)k / 6 % 5);
                double xk = eqnn_at(x[2], row, (int)k % 6);
                values[row * b.rows + o] += b.Q[(size_t)o * b.size + k] * xi * xj * xk;
            }
    want = eqnn_from_double(c, 21, b.rows, values);
    CHECK_SAME(z, want, test_eps(1e-13, 1e-6));
    free(values);
    free(b.Q);
}

TEST(reduced_product_derivatives)
{
    eqnn_ctx *c = test_context();
    const eqnn_reduced *r = eqnn_reduced_make(c, "ijk=jik=ikj", "0e+1o", NULL);
    eqnn_tensor *x[3] = { NULL };
    for (int s = 0; s < 3; s++) x[s] = labelled(c, 3, "0e+1o");
    CHECK_DERIVATIVES_OF(product_of, x, 3, (void *)r, 2);
    eqnn_tensor *same[3] = { x[0], x[0], x[0] };
    eqnn_tensor *z = eqnn_sum(eqnn_square(eqnn_as(eqnn_reduced_product(same, r), NULL)));
    eqnn_tensor *dx = eqnn_grad(z, x[0]); /* degree 6: x . dz/dx = 6 z */
    double along = eqnn_value(eqnn_sum(eqnn_mul(eqnn_as(x[0], NULL), eqnn_as(dx, NULL))));
    CHECK_NEAR(along / eqnn_value(z), 6, test_eps(1e-12, 1e-5));
}

TEST(reduced_product_equivariance)
{
    static const char *const t[][2] = {
        { "ijk=jik=ikj", "i=2x0o+1e+2e" }, { "ij=-ji", "2x1o+3e" }, { "ijk=jki", "i=1o+1e" }
    };
    for (int k = 0; k < 3; k++) {
        eqnn_ctx *c = test_context();
        const eqnn_reduced *r = eqnn_reduced_make(c, t[k][0], t[k][1], NULL);
        eqnn_tensor *x[3] = { NULL };
        int n = eqnn_reduced_indices(r);
        for (int s = 0; s < n; s++) x[s] = labelled(c, 4, eqnn_reduced_in(r, s)->name);
        double error = eqnn_check_equivariance(product_of, x, n, (void *)r, 4, NULL);
        test_note("%s of %s: %.1e", t[k][0], t[k][1], error);
        CHECK_NEAR(error, 0, test_eps(1e-12, 1e-5));
    }
}

TEST(reduced_product_edges)
{
    eqnn_ctx *c = test_context(), *other = test_context();
    const eqnn_reduced *r = eqnn_reduced_make(c, "ij=ji", "1o", NULL);
    const eqnn_reduced *none = eqnn_reduced_make(c, "ij=-ij", "1o", NULL);
    eqnn_tensor *empty[2] = { labelled(c, 0, "1o"), labelled(c, 0, "1o") };
    eqnn_tensor *wrong[2] = { labelled(c, 2, "1o"), labelled(c, 2, "1e") };
    eqnn_tensor *rows[2] = { labelled(c, 2, "1o"), labelled(c, 3, "1o") };
    eqnn_tensor *missing[2] = { labelled(c, 2, "1o"), NULL };
    eqnn_tensor *z = eqnn_reduced_product(empty, r);
    CHECK(z && eqnn_rows(z) == 0 && eqnn_cols(z) == 6);
    z = eqnn_reduced_product(empty, none);
    CHECK(z && eqnn_rows(z) == 0 && eqnn_cols(z) == 0);
    CHECK(!eqnn_reduced_product(wrong, r));
    CHECK_ERROR(c, "factor j of ij=ji is 1x1e [2,3], it wants 1x1o");
    CHECK(!eqnn_reduced_product(rows, r));
    CHECK_ERROR(c, "different numbers of rows");
    CHECK(!eqnn_reduced_product(missing, r));
    CHECK_ERROR(c, "missing");
    CHECK(!eqnn_reduced_product(empty, NULL));
    CHECK_ERROR(c, "reduced_product: the product is missing");
    eqnn_tensor *foreign[2] = { labelled(other, 2, "1o"), labelled(other, 2, "1o") };
    CHECK(!eqnn_reduced_product(foreign, r));
    CHECK_ERROR(other, "the product belongs to another context");
}

/* --- Cartesian tensors --- */

static eqnn_tensor *stress(eqnn_tensor *const *x, int n, void *user)
{
    (void)n;
    return eqnn_from_cartesian(x[0], (const char *)user);
}

static eqnn_tensor *unstress(eqnn_tensor *const *x, int n, void *user)
{
    (void)n;
    return eqnn_to_cartesian(x[0], (const char *)user);
}

TEST(cartesian_round_trip)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *T = test_normal(c, 5, 9), *z = eqnn_from_cartesian(T, "ij=ji");
    double half[45];
    CHECK_TEXT(eqnn_label_of(z) ? eqnn_label_of(z)->name : NULL, "1x0e+1x2e");
    for (int r = 0; r < 5; r++)
        for (int k = 0; k < 9; k++)
            half[9 * r + k] = 0.5 * (eqnn_at(T, r, k) + eqnn_at(T, r, k % 3 * 3 + k / 3));
    CHECK_SAME(eqnn_to_cartesian(z, "ij=ji"), eqnn_from_double(c, 5, 9, half),
               test_eps(1e-14, 1e-6));
    for (int r = 0; r < 5; r++) { /* the 0e is the trace over the root of 3 */
        double trace = half[9 * r] + half[9 * r + 4] + half[9 * r + 8];
        CHECK_NEAR(fabs(eqnn_at(z, r, 0)), fabs(trace / sqrt(3.0)), test_eps(1e-14, 1e-6));
    }
    T = test_normal(c, 2, 27); /* no symmetry: nothing is lost */
    CHECK_SAME(eqnn_to_cartesian(eqnn_from_cartesian(T, "ijk"), "ijk"), T,
               test_eps(1e-14, 1e-6));
    z = labelled(c, 3, "1o"); /* x, y, z as they are */
    CHECK_SAME(eqnn_to_cartesian(eqnn_from_cartesian(z, "i"), "i"), z, test_eps(1e-14, 1e-6));
    CHECK_SAME(eqnn_from_cartesian(eqnn_as(z, NULL), "i"), z, test_eps(1e-14, 1e-6));
}

/* R T R^T has the irreps of T, turned; so has its derivative. */
TEST(cartesian_turns)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *T = test_normal(c, 1, 9);
    double R[9], turned[9] = { 0 };
    eqnn_rotation_random(c, "R", 1, R);
    for (int n = 0; n < 81; n++) {
        int i = n / 27, j = n / 9 % 3, a = n / 3 % 3, b = n % 3;
        turned[3 * i + j] += R[3 * i + a] * R[3 * j + b] * eqnn_at(T, 0, 3 * a + b);
    }
    eqnn_tensor *z = eqnn_from_cartesian(T, "ij");
    CHECK_TEXT(eqnn_label_of(z) ? eqnn_label_of(z)->name : NULL, "1x0e+1x1e+1x2e");
    CHECK_SAME(eqnn_from_cartesian(eqnn_from_double(c, 1, 9, turned), "ij"), eqnn_rotate(z, R),
               test_eps(1e-13, 1e-5));
    eqnn_tensor *v[2] = { labelled(c, 4, "1o"), labelled(c, 4, "1o") };
    static const int first[] = { 0, 0, 0, 1, 1, 1, 2, 2, 2 };
    static const int second[] = { 0, 1, 2, 0, 1, 2, 0, 1, 2 };
    eqnn_ints *i = eqnn_ints_make(c, 9, first, 3, 0), *j = eqnn_ints_make(c, 9, second, 3, 0);
    eqnn_tensor *outer = eqnn_mul(eqnn_columns(eqnn_as(v[0], NULL), i),
                                  eqnn_columns(eqnn_as(v[1], NULL), j));
    const eqnn_reduced *r = eqnn_reduced_make(c, "ij=-ji", "1o", NULL);
    CHECK_SAME(eqnn_from_cartesian(outer, "ij=-ji"), eqnn_reduced_product(v, r),
               test_eps(1e-13, 1e-6));
    z = eqnn_detach(z);
    CHECK_DERIVATIVES_OF(stress, &T, 1, (void *)"ij", 2);
    CHECK_DERIVATIVES_OF(unstress, &z, 1, (void *)"ij", 2);
}

TEST(cartesian_bad_input)
{
    eqnn_ctx *c = test_context();
    CHECK(!eqnn_from_cartesian(test_normal(c, 2, 8), "ij=ji"));
    CHECK_ERROR(c, "\"ij=ji\" has 9 numbers");
    CHECK(!eqnn_to_cartesian(labelled(c, 2, "1x0e+1x2o"), "ij=ji"));
    CHECK_ERROR(c, "\"ij=ji\" is 1x0e+1x2e, x is 1x0e+1x2o");
    CHECK(!eqnn_from_cartesian(test_normal(c, 2, 9), "ii"));
    CHECK_ERROR(c, "an index stands twice");
    CHECK(!eqnn_from_cartesian(NULL, "ij") && !eqnn_to_cartesian(NULL, "ij"));
    eqnn_tensor *z = eqnn_from_cartesian(test_normal(c, 0, 9), "ij=ji");
    CHECK(z && eqnn_rows(z) == 0 && eqnn_cols(z) == 6);
    z = eqnn_from_cartesian(test_normal(c, 2, 9), "ij=-ij"); /* only zero has that symmetry */
    CHECK(z && eqnn_cols(z) == 0);
    z = eqnn_to_cartesian(z, "ij=-ij");
    CHECK(z && eqnn_cols(z) == 9 && eqnn_at(z, 1, 3) == 0);
}

/* --- symmetric contraction --- */

typedef struct contraction {
    const char *in, *leaf, *out; /* leaf: one copy of each block */
    int channels, correlation, species;
} contraction;

/* The fully symmetric product of nu factors. */
static const char *power(int nu)
{
    static const char *const formula[] = {
        "", "i", "ij=ji", "ijk=jik=ikj", "ijkl=jikl=ikjl=ijlk"
    };
    return formula[nu];
}

static eqnn_tensor *contract(eqnn_tensor *const *x, int n, void *user)
{
    const contraction *t = (const contraction *)user;
    eqnn_contraction_opts o = { t->correlation, NULL };
    int kinds[64];
    (void)n;
    for (int i = 0; i < eqnn_rows(x[0]); i++) kinds[i] = (2 * i + 1) % 3;
    if (t->species) o.species = eqnn_ints_make(eqnn_context(x[0]), eqnn_rows(x[0]), kinds, 3, 0);
    return eqnn_symmetric_contraction(x[0], "p", t->out, &o);
}

/* The definition: sum over paths of weight times U x .. x, for one order, one block, one node and
   one channel; z [components]. */
static void define_block(const basis *b, const eqnn_block *block, const double *x, const double *w,
                         double *z)
{
    const eqnn_irreps *rows = eqnn_reduced_out(b->r);
    for (int n = 0; n < rows->blocks; n++) {
        const eqnn_block *r = &rows->block[n];
        if (r->type != block->type) continue;
        for (int k = 0; k < r->type->dim * r->copies; k++) {
            const double *U = b->Q + (size_t)(r->start + k) * b->size;
            double sum = 0;
            for (size_t i = 0; i < b->size; i++) {
                double term = U[i];
                size_t rest = i;
                for (int s = 0; term != 0 && s < b->n; s++) {
                    term *= x[rest % (size_t)b->d[0]];
                    rest /= (size_t)b->d[0];
                }
                sum += term;
            }
            z[k / r->copies] += w[k % r->copies] * sum;
        }
    }
}

/* Adds the terms of one order of a contraction whose weights are parameters of c. */
static void define_order(eqnn_ctx *c, const contraction *t, int nu, const eqnn_tensor *x, double *z)
{
    const eqnn_irreps *in = eqnn_label_of(x), *out = eqnn_irreps_make(c, t->out);
    basis b = basis_make(c, power(nu), t->leaf, NULL);
    int C = t->channels;
    for (int o = 0; o < out->blocks; o++) {
        char name[64];
        int lower = t->correlation - 1 - nu;
        if (lower < 0) snprintf(name, sizeof name, "p.contractions.%d.weights_max", o);
        else snprintf(name, sizeof name, "p.contractions.%d.weights.%d", o, lower);
        eqnn_tensor *w = eqnn_parameter(c, name);
        const eqnn_type *type = out->block[o].type;
        int paths = eqnn_irreps_count(eqnn_reduced_out(b.r), type->l, type->p);
        CHECK(paths == 0 ? !w : eqnn_cols(w) == paths * C && eqnn_rows(w) == (t->species ? 3 : 1));
        for (int row = 0; row < eqnn_rows(x) && paths; row++)
            for (int u = 0; u < C; u++) {
                double one[64], value[16] = { 0 }, weight[512];
                int n = 0;
                for (int k = 0; k < in->blocks; k++)
                    for (int m = 0; m < in->block[k].type->dim; m++)
                        one[n++] = eqnn_at(x, row, in->block[k].start + m * C + u);
                for (int p = 0; p < paths; p++)
                    weight[p] = eqnn_at(w, t->species ? (2 * row + 1) % 3 : 0, p * C + u);
                define_block(&b, &out->block[o], one, weight, value);
                for (int m = 0; m < out->block[o].type->dim; m++)
                    z[row * out->cols + out->block[o].start + m * C + u] += value[m];
            }
    }
    free(b.Q);
}

static const contraction contractions[] = {
    { "3x0e+3x1o+3x2e", "0e+1o+2e", "3x0e+3x1o", 3, 3, 1 },
    { "2x0e+2x1o+2x2e+2x3o", "0e+1o+2e+3o", "2x1o+2x0e+2x2e", 2, 3, 0 },
    { "2x1e+2x0o+2x1o", "1e+0o+1o", "2x0o+2x1e+2x0e+2x2o", 2, 3, 1 },
    { "1x0e+1x1o+1x2e", "0e+1o+2e", "1x0e+1x2e", 1, 4, 1 },
    { "4x0e+4x1o", "0e+1o", "4x0e+4x1o+4x1o", 4, 2, 1 },
    { "4x0e+4x1o", "0e+1o", "4x0e+4x1o", 4, 1, 0 },
    { "16x1o+16x0e", "1o+0e", "16x0e+16x1o", 16, 3, 1 },   /* whole vectors of channels */
    { "17x0e+17x1e", "0e+1e", "17x1e", 17, 2, 0 },
    { "2x1o+2x1o", "1o+1o", "2x0o+2x0e+2x1e", 2, 3, 0 }, /* two of one kind */
};

TEST(contraction_definition)
{
    for (size_t k = 0; k < sizeof contractions / sizeof contractions[0]; k++) {
        const contraction *t = &contractions[k];
        eqnn_ctx *c = test_context();
        eqnn_tensor *x = labelled(c, 5, t->in), *z = contract(&x, 1, (void *)t);
        double *want = (double *)calloc((size_t)eqnn_cols(z) * 5 + 1, sizeof(double));
        CHECK(z && eqnn_label_of(z) == eqnn_irreps_make(c, t->out));
        for (int nu = 1; nu <= t->correlation; nu++) define_order(c, t, nu, x, want);
        CHECK_SAME(z, eqnn_from_double(c, 5, eqnn_cols(z), want), test_eps(1e-12, 1e-5));
        double error = eqnn_check_equivariance(contract, &x, 1, (void *)t, 3, NULL);
        test_note("%s -> %s, %d factors: %.1e from the definition, equivariance %.1e", t->in,
                  t->out, t->correlation,
                  test_difference(z, eqnn_from_double(c, 5, eqnn_cols(z), want)), error);
        CHECK_NEAR(error, 0, test_eps(1e-11, 1e-5));
        free(want);
    }
}

TEST(contraction_derivatives)
{
    for (size_t k = 0; k < 4; k++) {
        const contraction *t = &contractions[k];
        eqnn_ctx *c = test_context();
        eqnn_tensor *x = eqnn_scale(labelled(c, 3, t->in), 0.5);
        CHECK_DERIVATIVES_OF(contract, &x, 1, (void *)t, 2);
    }
}

/* z is linear in all weights together: w . dz/dw = z, and a force's dependence on them likewise. */
TEST(contraction_weights)
{
    const contraction *t = &contractions[0];
    eqnn_ctx *c = test_context();
    eqnn_tensor *x = labelled(c, 4, t->in), *w[16], *dw[16];
    eqnn_tensor *z = eqnn_as(contract(&x, 1, (void *)t), NULL);
    int n = eqnn_parameter_count(c);
    CHECK(n == 6); /* two outputs, three orders */
    eqnn_symmetric_contraction(x, "three", "3x0e", NULL); /* orders, where none are said */
    CHECK(eqnn_parameter(c, "three.contractions.0.weights.1") != NULL);
    CHECK(!eqnn_parameter(c, "three.contractions.0.weights.2"));
    eqnn_tensor *y = eqnn_sum(eqnn_mul(z, test_normal(c, 4, 12)));
    eqnn_tensor *force = eqnn_as(eqnn_grad(y, x), NULL);
    force = eqnn_sum(eqnn_mul(force, test_normal(c, 4, 27)));
    for (int pass = 0; pass < 2; pass++) {
        double sum = 0;
        for (int i = 0; i < n; i++) w[i] = eqnn_parameter_at(c, i);
        eqnn_grads(pass ? force : y, w, n, dw);
        for (int i = 0; i < n; i++) sum += eqnn_value(eqnn_sum(eqnn_mul(w[i], dw[i])));
        CHECK_NEAR(sum, eqnn_value(pass ? force : y), test_eps(1e-12, 1e-4));
    }
}

TEST(contraction_rows)
{
    const contraction *t = &contractions[0];
    eqnn_ctx *c = test_context();
    static const int order[] = { 3, 0, 5, 1, 4, 2 }, kinds[] = { 1, 0, 2, 1, 0, 2 };
    int moved[6];
    for (int i = 0; i < 6; i++) moved[i] = kinds[order[i]];
    eqnn_contraction_opts o = { 3, eqnn_ints_make(c, 6, kinds, 3, 0) };
    eqnn_tensor *x = labelled(c, 6, t->in), *z = eqnn_symmetric_contraction(x, "p", t->out, &o);
    eqnn_ints *index = eqnn_ints_make(c, 6, order, 6, 0);
    o.species = eqnn_ints_make(c, 6, moved, 3, 0);
    CHECK_SAME(eqnn_symmetric_contraction(eqnn_take(x, index), "p", t->out, &o),
               eqnn_take(z, index), 0);
    o.species = eqnn_ints_make(c, 0, kinds, 3, 0);
    z = eqnn_symmetric_contraction(labelled(c, 0, t->in), "p", t->out, &o);
    CHECK(z && eqnn_rows(z) == 0 && eqnn_cols(z) == 12);
    o.species = eqnn_ints_make(c, 1, kinds, 3, 0);
    CHECK(eqnn_rows(eqnn_symmetric_contraction(labelled(c, 1, t->in), "p", t->out, &o)) == 1);
    z = eqnn_symmetric_contraction(labelled(c, 2, "3x0e"), "none", "3x1o", NULL); /* out of reach */
    CHECK(z && eqnn_cols(z) == 9 && eqnn_at(z, 1, 4) == 0);
    CHECK(eqnn_parameter_count(c) == 6);
    z = eqnn_symmetric_contraction(labelled(c, 2, "3x0e"), "empty", "", NULL);
    CHECK(z && eqnn_rows(z) == 2 && eqnn_cols(z) == 0);
}

TEST(contraction_bad_input)
{
    eqnn_ctx *c = test_context();
    eqnn_contraction_opts o = { 8, NULL };
    eqnn_tensor *x = labelled(c, 3, "2x0e+2x1o");
    int kinds[2] = { 0, 1 };
    CHECK(!eqnn_symmetric_contraction(x, "a", "2x0e", &o));
    CHECK_ERROR(c, "correlation 8; it is 1 to 7");
    CHECK(!eqnn_symmetric_contraction(labelled(c, 3, "2x0e+3x1o"), "a", "2x0e", NULL));
    CHECK_ERROR(c, "every block has the same number of copies");
    CHECK(!eqnn_symmetric_contraction(x, "a", "3x0e", NULL));
    CHECK_ERROR(c, "every block has the same number of copies");
    o.correlation = 2;
    o.species = eqnn_ints_make(c, 2, kinds, 2, 0);
    CHECK(!eqnn_symmetric_contraction(x, "a", "2x0e", &o));
    CHECK_ERROR(c, "2 species of range 2 for 3 rows");
    CHECK(!eqnn_symmetric_contraction(x, "a", "2x0q", NULL));
    CHECK_ERROR(c, "a parity e, o or y is expected");
    CHECK(!eqnn_symmetric_contraction(NULL, "a", "2x0e", NULL));
}

TEST_MAIN
