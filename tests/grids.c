/* grids.c - tests of the grids on the sphere and on SO(3), and of activations on them */
#include "test.h"

static const double pi = 3.14159265358979323846;

/* "Cx0e+Cx1o+..." with the parity p_val p_arg^l, on SO(3) (2l+1) C copies of degree l */
static const eqnn_irreps *function_of(eqnn_ctx *c, int so3, int C, int lmax, int p_val, int p_arg)
{
    int block[20][3];
    for (int l = 0; l <= lmax; l++) {
        block[l][0] = C * (so3 ? 2 * l + 1 : 1);
        block[l][1] = l;
        block[l][2] = l % 2 ? p_val * p_arg : p_val;
    }
    return eqnn_irreps_blocks(c, (const int (*)[3])block, lmax + 1);
}

static eqnn_tensor *random_of(eqnn_ctx *c, int rows, const eqnn_irreps *a)
{
    return eqnn_as(test_normal(c, rows, a->cols), a);
}

/* --- the quadrature --- */

/* Harmonics up to lmax are orthonormal for the mean over the points, when beta >= 2 lmax + 2. */
TEST(quadrature_integrates_products)
{
    static const int sizes[][3] = { { 0, 2, 1 }, { 1, 4, 3 }, { 3, 8, 7 }, { 5, 12, 14 },
                                    { 8, 18, 17 } };
    for (int s = 0; s < 5; s++) {
        int lmax = sizes[s][0], beta = sizes[s][1], alpha = sizes[s][2],
            K = (lmax + 1) * (lmax + 1);
        double xyz[3 * 18 * 17], weight[18 * 17], Y[81], worst = 0, sum = 0;
        double *product = (double *)calloc((size_t)(K * K), sizeof *product);
        eqnn_s2grid_points(beta, alpha, xyz, weight);
        for (int p = 0; p < beta * alpha; p++) {
            const double *r = xyz + 3 * p;
            CHECK_NEAR(r[0] * r[0] + r[1] * r[1] + r[2] * r[2], 1, 1e-14);
            CHECK(weight[p] > 0);
            sum += weight[p];
            eqnn_solid_harmonics(lmax, r, Y);
            for (int i = 0; i < K * K; i++) product[i] += weight[p] * Y[i / K] * Y[i % K];
        }
        for (int i = 0; i < K * K; i++)
            worst = fmax(worst, fabs(product[i] - (i / K == i % K)));
        test_note("lmax %d, %d x %d points: %.1e", lmax, beta, alpha, worst);
        CHECK_NEAR(worst, 0, 1e-13);
        CHECK_NEAR(sum, 1, 1e-14);
        free(product);
    }
    double xyz[12], weight[4];
    eqnn_s2grid_points(2, 2, xyz, NULL);
    eqnn_s2grid_points(2, 2, NULL, weight);
    CHECK_NEAR(xyz[3 * 2 + 1], -sqrt(0.5), 1e-15);
    CHECK_NEAR(weight[3], 0.25, 1e-15);
}

/* --- there and back --- */

TEST(round_trip)
{
    eqnn_ctx *c = test_context();
    static const double scale[] = { 2, 0.5, 1, 1.5, 0.7, 1.2, 1 };
    double eps = test_eps(1e-13, 1e-5);
    for (int lmax = 0; lmax <= 6; lmax++)
        for (int C = 1; C <= 20; C += 1 + 2 * C)
            for (int way = 0; way < 5; way++) {
                eqnn_tensor *x = random_of(c, 1 + lmax % 3, function_of(c, 0, C, lmax, 1, -1));
                eqnn_grid_opts o = { .kind = (eqnn_harmonics_kind)(way % 3) };
                if (way == 3) o.scale = scale, o.beta = 2 * lmax + 4, o.alpha = 2 * lmax + 1;
                if (way == 4) o.random = "turned";
                eqnn_tensor *f = eqnn_to_s2grid(x, &o);
                eqnn_tensor *y = eqnn_from_s2grid(f, eqnn_label_of(x), &o);
                CHECK(!eqnn_label_of(f) && eqnn_label_of(y) == eqnn_label_of(x));
                CHECK_SAME(y, x, eps);
                eqnn_reset(c);
            }
    for (int lmax = 0; lmax <= 3; lmax++)
        for (int C = 1; C <= 5; C += 4)
            for (int way = 0; way < 3; way++) {
                eqnn_tensor *x = random_of(c, 2, function_of(c, 1, C, lmax, 1, 1));
                eqnn_grid_opts o = { .beta = way == 1 ? 2 * lmax + 4 : 0,
                                     .alpha = way == 1 ? 2 * lmax + 1 : 0,
                                     .random = way == 2 ? "turned" : NULL };
                eqnn_tensor *f = eqnn_to_so3grid(x, &o);
                CHECK_SAME(eqnn_from_so3grid(f, eqnn_label_of(x), &o), x, eps);
                eqnn_reset(c);
            }
}

/* A value is the sum of n_l x_k Y_k at its point, whatever the number of channels. */
TEST(values_by_definition)
{
    eqnn_ctx *c = test_context();
    int lmax = 3, beta = 8, alpha = 9, C = 5, K = 16;
    static const double scale[] = { 2, 0.5, 1, 1.5 };
    double xyz[3 * 72], Y[16], four_pi = 4 * acos(-1.0);
    eqnn_s2grid_points(beta, alpha, xyz, NULL);
    for (int way = 0; way < 4; way++) {
        eqnn_grid_opts o = { .beta = beta, .alpha = alpha, .scale = way == 3 ? scale : NULL,
                             .kind = way < 3 ? (eqnn_harmonics_kind)way : EQNN_COMPONENT };
        eqnn_tensor *x = random_of(c, 3, function_of(c, 0, C, lmax, -1, -1));
        eqnn_tensor *f = eqnn_to_s2grid(x, &o);
        double n[4], worst = 0;
        for (int l = 0; l <= lmax; l++) {
            n[l] = 1 / sqrt((2 * l + 1) * (lmax + 1.0));
            if (way == EQNN_INTEGRAL) n[l] = 1 / sqrt(four_pi);
            if (way == EQNN_NORM) n[l] = 1 / sqrt(lmax + 1.0);
            if (way == 3) n[l] = scale[l] / sqrt(four_pi);
        }
        CHECK(eqnn_rows(f) == 3 && eqnn_cols(f) == 72 * C && K * C == eqnn_cols(x));
        for (int p = 0; p < 72; p++) {
            eqnn_solid_harmonics(lmax, xyz + 3 * p, Y);
            for (int r = 0; r < 3; r++)
                for (int u = 0; u < C; u++) {
                    double sum = 0;
                    for (int l = 0; l <= lmax; l++)
                        for (int k = l * l; k < (l + 1) * (l + 1); k++)
                            sum += n[l] * Y[k] * eqnn_at(x, r, k * C + u);
                    worst = fmax(worst, fabs(sum - eqnn_at(f, r, p * C + u)));
                }
        }
        CHECK_NEAR(worst, 0, test_eps(1e-13, 1e-5));
    }
}

/* The same numbers of SO(3): f(g) = sum F_ij sqrt(2l+1) D_ij(g) / N, a point at angles of its
   own. */
TEST(so3_values_by_definition)
{
    eqnn_ctx *c = test_context();
    int beta = 4, alpha = 5, C = 2;
    eqnn_grid_opts o = { .beta = beta, .alpha = alpha };
    eqnn_tensor *x = random_of(c, 2, function_of(c, 1, C, 1, 1, 1)), *f = eqnn_to_so3grid(x, &o);
    double worst = 0;
    CHECK(eqnn_cols(f) == beta * alpha * alpha * C);
    for (int p = 0; p < beta * alpha * alpha; p++) {
        double R[9], D[9];
        eqnn_rotation_angles(2 * pi * (p / alpha % alpha) / alpha,
                             pi * (p / alpha / alpha + 0.5) / beta, 2 * pi * (p % alpha) / alpha,
                             R);
        eqnn_wigner_D(1, R, D);
        for (int u = 0; u < C; u++) {
            double sum = eqnn_at(x, 1, u);
            for (int i = 0; i < 3; i++)
                for (int j = 0; j < 3; j++)
                    sum += sqrt(3.0) * D[3 * i + j] * eqnn_at(x, 1, C + (j * 3 + i) * C + u);
            worst = fmax(worst, fabs(sum / sqrt(10.0) - eqnn_at(f, 1, p * C + u)));
        }
    }
    CHECK_NEAR(worst, 0, test_eps(1e-13, 1e-5));
}

/* Normal components give values of variance about 1. */
TEST(values_have_the_size_of_components)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *x = random_of(c, 500, function_of(c, 0, 4, 4, 1, -1));
    eqnn_tensor *f = eqnn_to_s2grid(x, NULL);
    CHECK_NEAR(eqnn_value(eqnn_mean(eqnn_square(f))), 1, 0.05);
    x = random_of(c, 100, function_of(c, 1, 1, 2, 1, 1));
    CHECK_NEAR(eqnn_value(eqnn_mean(eqnn_square(eqnn_to_so3grid(x, NULL)))), 1, 0.1);
}

TEST(sizes_zero_and_one)
{
    eqnn_ctx *c = test_context();
    const eqnn_irreps *a = function_of(c, 0, 3, 2, 1, -1), *one = eqnn_irreps_make(c, "1x0e");
    eqnn_tensor *none = eqnn_as(eqnn_zeros(c, 0, 27), a);
    eqnn_tensor *y = eqnn_s2_activation(none, EQNN_TANH, NULL);
    CHECK(eqnn_rows(y) == 0 && eqnn_label_of(y) == a);
    y = eqnn_s2_activation(eqnn_full(c, 4, 1, 0.3), EQNN_TANH, NULL); /* no label: scalars */
    CHECK(eqnn_label_of(y) == one);
    CHECK_NEAR(eqnn_at(y, 3, 0), tanh(0.3) * eqnn_moment(c, EQNN_TANH, 0, 0),
               test_eps(1e-14, 1e-6));
    CHECK(!eqnn_to_s2grid(NULL, NULL) && !eqnn_from_s2grid(NULL, a, NULL));
    CHECK(!eqnn_s2_activation(NULL, EQNN_TANH, NULL) &&
          !eqnn_so3_activation(NULL, EQNN_TANH, NULL));
}

/* --- activations --- */

/* The linear act gives x back, and the channels do not see each other. */
TEST(activation_by_channel)
{
    eqnn_ctx *c = test_context();
    int C = 6, lmax = 2, K = 9;
    eqnn_tensor *x = random_of(c, 3, function_of(c, 0, C, lmax, 1, -1));
    eqnn_grid_opts o = { .beta = 10, .exact = 1 };
    CHECK_SAME(eqnn_s2_activation(x, EQNN_IDENTITY, &o), x, test_eps(1e-13, 1e-5));
    eqnn_tensor *y = eqnn_s2_activation(x, EQNN_SILU, &o);
    for (int u = 0; u < C; u++) {
        int column[9];
        for (int k = 0; k < K; k++) column[k] = k * C + u;
        eqnn_ints *index = eqnn_ints_make(c, K, column, K * C, 0);
        eqnn_tensor *one = eqnn_as(eqnn_columns(eqnn_as(x, NULL), index),
                                   eqnn_irreps_spherical(c, lmax));
        CHECK_SAME(eqnn_as(eqnn_s2_activation(one, EQNN_SILU, &o), NULL),
                   eqnn_columns(eqnn_as(y, NULL), index), test_eps(1e-13, 1e-5));
    }
}

/* Degrees above those of x: up to the result's own, the same numbers whatever lmax_out is. */
/* To the grid, the function times its moment, and back. */
TEST(activation_by_definition)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *x = random_of(c, 3, function_of(c, 0, 2, 2, 1, -1));
    for (int exact = 0; exact < 2; exact++) {
        eqnn_grid_opts o = { .beta = 10, .exact = exact };
        eqnn_tensor *f = eqnn_silu(eqnn_to_s2grid(x, &o));
        f = eqnn_scale(f, eqnn_moment(c, EQNN_SILU, 0, exact));
        CHECK_SAME(eqnn_s2_activation(x, EQNN_SILU, &o),
                   eqnn_from_s2grid(f, eqnn_label_of(x), &o), test_eps(1e-13, 1e-5));
    }
}

TEST(activation_to_other_degrees)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *x = random_of(c, 3, function_of(c, 0, 2, 2, 1, -1));
    eqnn_grid_opts low = { .beta = 12, .lmax_out = 1 }, high = { .beta = 12, .lmax_out = 5 };
    eqnn_tensor *a = eqnn_s2_activation(x, EQNN_TANH, &low);
    eqnn_tensor *b = eqnn_s2_activation(x, EQNN_TANH, &high);
    CHECK_TEXT(eqnn_label_of(a)->name, "2x0e+2x1o");
    CHECK_TEXT(eqnn_label_of(b)->name, "2x0e+2x1o+2x2e+2x3o+2x4e+2x5o");
    CHECK_SAME(a, eqnn_slice(b, 0, 8), test_eps(1e-13, 1e-5));
    high.beta = 0; /* the default holds the larger of both */
    CHECK(eqnn_s2_activation(x, EQNN_TANH, &high) != NULL);
}

/* p_val p_arg^l: an odd act keeps p_val, an even one makes it +1. */
TEST(activation_parities)
{
    static const struct { int p_val, p_arg; eqnn_act act; const char *out; } cases[] = {
        { 1, -1, EQNN_SILU, "1x0e+1x1o+1x2e" }, { 1, 1, EQNN_SILU, "1x0e+1x1e+1x2e" },
        { -1, -1, EQNN_TANH, "1x0o+1x1e+1x2o" }, { -1, 1, EQNN_TANH, "1x0o+1x1o+1x2o" },
        { -1, -1, EQNN_ABS, "1x0e+1x1o+1x2e" }, { -1, 1, EQNN_COS, "1x0e+1x1e+1x2e" } };
    eqnn_ctx *c = test_context();
    for (int k = 0; k < 6; k++) {
        eqnn_tensor *x = random_of(c, 2, function_of(c, 0, 1, 2, cases[k].p_val, cases[k].p_arg));
        eqnn_tensor *y = eqnn_s2_activation(x, cases[k].act, NULL);
        CHECK(y && !strcmp(eqnn_label_of(y)->name, cases[k].out));
        CHECK_OK(c);
    }
    eqnn_tensor *x = random_of(c, 2, function_of(c, 1, 1, 1, -1, 1));
    CHECK_TEXT(eqnn_label_of(eqnn_so3_activation(x, EQNN_TANH, NULL))->name, "1x0o+3x1o");
    CHECK_TEXT(eqnn_label_of(eqnn_so3_activation(x, EQNN_ABS, NULL))->name, "1x0e+3x1e");
}

typedef struct act_on { int so3; eqnn_act act; eqnn_grid_opts o; } act_on;

static eqnn_tensor *activate(eqnn_tensor *const *x, int n, void *user)
{
    const act_on *a = (const act_on *)user;
    (void)n;
    return a->so3 ? eqnn_so3_activation(x[0], a->act, &a->o)
                  : eqnn_s2_activation(x[0], a->act, &a->o);
}

/* What the grid does not resolve breaks the symmetry; it fades as the grid becomes finer, for all
   of O(3) and every parity. */
TEST(activation_is_equivariant)
{
    eqnn_ctx *c = test_context();
    static const int p[][2] = { { 1, -1 }, { 1, 1 }, { -1, -1 }, { -1, 1 } };
    static const double bound[3] = { 0.6, 5e-2, 5e-4 };
    for (int k = 0; k < 4; k++) {
        eqnn_tensor *x = random_of(c, 4, function_of(c, 0, 3, 3, p[k][0], p[k][1]));
        double last = 10;
        for (int step = 0; step < 3; step++) {
            act_on a = { .act = EQNN_TANH, .o = { .beta = 8 << step } };
            double error = eqnn_check_equivariance(activate, &x, 1, &a, 10, NULL);
            test_note("tanh on the sphere, parities %d %d, %d rings: equivariance %.1e", p[k][0],
                      p[k][1], 8 << step, error);
            CHECK(error < bound[step] && error < last / 5);
            last = error;
        }
        act_on usual = { .act = EQNN_TANH };
        last = eqnn_check_equivariance(activate, &x, 1, &usual, 10, NULL);
        test_note("by default: %.1e", last);
        CHECK(last < 5e-3);
    }
    for (int step = 0; step < 3; step++) {
        static const double fine[3] = { 0.6, 2e-2, 3e-3 };
        eqnn_tensor *x = random_of(c, 2, function_of(c, 1, 2, 1, 1, 1));
        act_on a = { .so3 = 1, .act = EQNN_TANH, .o = { .beta = 4 + 4 * step } };
        double error = eqnn_check_equivariance(activate, &x, 1, &a, 10, NULL);
        test_note("tanh on SO(3), %d rings: equivariance %.1e", 4 + 4 * step, error);
        CHECK(error < fine[step]);
    }
    /* A square of degree lmax has degree 2 lmax and no more: 3 lmax + 1 rings
       and points on each resolve the result. */
    eqnn_tensor *x = random_of(c, 4, function_of(c, 0, 2, 3, 1, -1));
    act_on a = { .act = EQNN_POW, .o = { .beta = 10, .alpha = 10 } };
    double error = eqnn_check_equivariance(activate, &x, 1, &a, 10, NULL);
    test_note("square on the sphere, 10 rings: equivariance %.1e", error);
    CHECK_NEAR(error, 0, test_eps(1e-13, 1e-5));
}

/* A turned grid gives other numbers, within the error of the grid; the same ones within a tick. */
TEST(random_rotation)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *x = eqnn_keep(random_of(c, 4, function_of(c, 0, 2, 3, 1, -1)));
    eqnn_grid_opts o = { .beta = 16 }, turned = { .beta = 16, .random = "grid" };
    eqnn_tensor *y = eqnn_keep(eqnn_s2_activation(x, EQNN_TANH, &o));
    eqnn_tensor *a = eqnn_keep(eqnn_s2_activation(x, EQNN_TANH, &turned));
    CHECK_SAME(eqnn_s2_activation(x, EQNN_TANH, &turned), a, 0);
    double d = test_difference(a, y);
    test_note("the grid turned: %.1e", d);
    CHECK(d > 1e-7 && d < 5e-2);
    eqnn_reset(c);
    CHECK(test_difference(eqnn_s2_activation(x, EQNN_TANH, &turned), a) > 1e-7);
}

TEST(grid_derivatives)
{
    eqnn_ctx *c = test_context();
    for (int k = 0; k < 4; k++) {
        int so3 = k == 3, C = k == 0 ? 1 : 3;
        act_on a = { .so3 = so3, .act = EQNN_TANH, .o = { .lmax_out = k == 1 ? 3 : 0 } };
        if (k == 2) a.o.random = "grid";
        eqnn_tensor *x = random_of(c, 2, function_of(c, so3, C, so3 ? 1 : 2, 1, so3 ? 1 : -1));
        CHECK_DERIVATIVES_OF(activate, &x, 1, &a, 1);
        CHECK_DERIVATIVES_OF(activate, &x, 1, &a, 2);
    }
}

/* Weights below a grid: the unrecorded sweep and recomputation give the gradient of the recorded
   one. */
static eqnn_tensor *linear_and_act(eqnn_tensor *const *x, int n, void *user)
{
    (void)n;
    return eqnn_s2_activation(eqnn_irreps_linear(x[0], "mix", "4x0e+4x1o+4x2e", NULL), EQNN_SILU,
                              (const eqnn_grid_opts *)user);
}

TEST(backward_through_a_grid)
{
    eqnn_ctx *c = test_context();
    eqnn_grid_opts o = { .random = "grid" };
    eqnn_tensor *x = eqnn_keep(random_of(c, 3, function_of(c, 0, 2, 2, 1, -1))), *first = NULL;
    for (int way = 0; way < 3; way++) {
        eqnn_tensor *y = way == 2 ? eqnn_checkpoint(linear_and_act, &x, 1, &o, sizeof o)
                                  : linear_and_act(&x, 1, &o);
        eqnn_tensor *loss = eqnn_sum(eqnn_square(eqnn_as(y, NULL))), *w = eqnn_parameter_at(c, 0);
        if (way == 0) {
            first = eqnn_grad(loss, w);
            continue;
        }
        eqnn_zero_gradients(c);
        eqnn_backward(loss);
        CHECK_SAME(eqnn_gradient(w), first, test_eps(1e-13, 1e-5));
    }
    CHECK(eqnn_value(eqnn_sum(eqnn_square(first))) > 0);
}

/* --- what is refused --- */

TEST(grids_refuse)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *x = eqnn_as(eqnn_zeros(c, 2, 9), eqnn_irreps_make(c, "1x0e+1x1o+1x2e"));
    eqnn_grid_opts odd = { .beta = 7 }, few = { .beta = 4 }, narrow = { .alpha = 4 };
    CHECK(!eqnn_to_s2grid(x, &odd));
    CHECK_ERROR(c, "to_s2grid: a grid of 7 rings");
    CHECK(!eqnn_to_s2grid(x, &few));
    CHECK_ERROR(c, "at least 6");
    CHECK(!eqnn_s2_activation(x, EQNN_TANH, &narrow));
    CHECK_ERROR(c, "s2_activation: a grid of 18 rings with 4 points");
    eqnn_grid_opts huge = { .beta = 1 << 20, .alpha = 1 << 20 };
    CHECK(!eqnn_to_s2grid(x, &huge));
    CHECK_ERROR(c, "too many");
    CHECK(!eqnn_to_s2grid(eqnn_as(x, eqnn_irreps_make(c, "1x0e+1x2e+1x1o")), NULL));
    CHECK_ERROR(c, "is no function on the sphere");
    CHECK(!eqnn_to_s2grid(eqnn_as(x, eqnn_irreps_make(c, "3x0e+2x1o")), NULL));
    CHECK_ERROR(c, "3x0e+2x1o is no function on the sphere");
    CHECK(!eqnn_to_so3grid(x, NULL));
    CHECK_ERROR(c, "no function on SO(3)");
    CHECK(!eqnn_to_s2grid(eqnn_zeros(c, 2, 0), NULL));
    CHECK_ERROR(c, "is no function");
    CHECK(!eqnn_from_s2grid(eqnn_zeros(c, 2, 31), eqnn_label_of(x), NULL));
    CHECK_ERROR(c, "from_s2grid: values [2,31]; 1x0e+1x1o+1x2e on a grid of 30 points has 30");
    CHECK(!eqnn_from_s2grid(eqnn_zeros(c, 2, 30), NULL, NULL));
    CHECK_ERROR(c, "the irreps are missing");
    eqnn_grid_opts negative = { .lmax_in = -1 };
    CHECK(!eqnn_from_s2grid(eqnn_zeros(c, 2, 30), eqnn_label_of(x), &negative));
    CHECK_ERROR(c, "lmax_in -1 is negative");
    CHECK(!eqnn_s2_activation(eqnn_as(x, eqnn_irreps_make(c, "1x0e+1x1o+1x2o")), EQNN_TANH, NULL));
    CHECK_ERROR(c, "the parities of 1x0e+1x1o+1x2o");
    CHECK(!eqnn_s2_activation(eqnn_as(x, eqnn_irreps_make(c, "1x0o+1x1e+1x2o")), EQNN_SILU, NULL));
    CHECK_ERROR(c, "neither even nor odd");
    eqnn_tensor *y = eqnn_as(eqnn_zeros(c, 2, 10), eqnn_irreps_make(c, "1x0e+3x1o"));
    CHECK(!eqnn_so3_activation(y, EQNN_TANH, NULL));
    CHECK_ERROR(c, "no function on SO(3)");
    eqnn_grid_opts above = { .lmax_out = -2 };
    CHECK(!eqnn_s2_activation(x, EQNN_TANH, &above));
    CHECK_ERROR(c, "degree -2");
    CHECK_OK(c);
}

TEST_MAIN
