/* tape.c - contexts, tensors, operations and their derivatives (sections 2, 3, 5, 6 of eqnn.h) */
#include "test.h"

/* --- one operation each, as functions of x[] for the checker --- */

static eqnn_tensor *f_div(eqnn_tensor *const *x, int n, void *user)
{
    (void)n;
    (void)user;
    return eqnn_div(x[0], eqnn_shift(eqnn_square(x[1]), 1));
}

static eqnn_tensor *f_where(eqnn_tensor *const *x, int n, void *user)
{
    (void)n;
    (void)user;
    return eqnn_where(eqnn_less(x[0], x[1]), eqnn_square(x[0]), eqnn_mul(x[0], x[1]));
}

static eqnn_tensor *f_atan2(eqnn_tensor *const *x, int n, void *user)
{
    (void)n;
    (void)user;
    return eqnn_atan2(x[0], x[1]);
}

static eqnn_tensor *f_matmul(eqnn_tensor *const *x, int n, void *user)
{
    const int *t = (const int *)user;
    (void)n;
    return eqnn_square(eqnn_matmul_t(x[0], x[1], t[0], t[1]));
}

static eqnn_tensor *f_rows(eqnn_tensor *const *x, int n, void *user)
{
    const int index[5] = { 2, 0, 2, 1, 2 };
    eqnn_ints *i = eqnn_ints_make(eqnn_context(x[0]), 5, index, 4, 0);
    eqnn_tensor *y = eqnn_take(eqnn_square(x[0]), i);
    (void)n;
    (void)user;
    return eqnn_mul(eqnn_collect(y, i), x[0]);
}

static eqnn_tensor *f_columns(eqnn_tensor *const *x, int n, void *user)
{
    const int index[6] = { 2, 0, 2, 1, 2, 2 };
    eqnn_ints *i = eqnn_ints_make(eqnn_context(x[0]), 6, index, 3, 0);
    (void)n;
    (void)user;
    return eqnn_mul(eqnn_collect_columns(eqnn_square(eqnn_columns(x[0], i)), i), x[0]);
}

static eqnn_tensor *f_softmax(eqnn_tensor *const *x, int n, void *user)
{
    const int segment[4] = { 2, 0, 2, 2 };
    eqnn_ints *i = eqnn_ints_make(eqnn_context(x[0]), 4, segment, 3, 0);
    (void)n;
    (void)user;
    return eqnn_concat(eqnn_softmax(x[0]), eqnn_segment_softmax(x[0], i));
}

static eqnn_tensor *f_pieces(eqnn_tensor *const *x, int n, void *user)
{
    eqnn_tensor *parts[3];
    (void)n;
    (void)user;
    parts[0] = eqnn_slice(x[0], 1, 2);
    parts[1] = eqnn_square(x[0]);
    parts[2] = eqnn_slice(x[1], 0, 1);
    eqnn_tensor *wide = eqnn_concat_n(parts, 3);
    parts[0] = eqnn_slice_rows(wide, 1, 2);
    parts[1] = eqnn_sin(wide);
    return eqnn_repeat(eqnn_transpose(eqnn_stack(parts, 2)), 2);
}

static eqnn_tensor *f_extremes(eqnn_tensor *const *x, int n, void *user)
{
    const int segment[4] = { 1, 0, 1, 1 };
    eqnn_ints *i = eqnn_ints_make(eqnn_context(x[0]), 4, segment, 3, 0);
    eqnn_tensor *parts[3];
    (void)n;
    (void)user;
    parts[0] = eqnn_square(eqnn_max_rows(x[0]));
    parts[1] = eqnn_transpose(eqnn_mul(eqnn_max_cols(x[0]), eqnn_sum_cols(x[0])));
    parts[2] = eqnn_mean_rows(eqnn_square(eqnn_segment_max(x[0], i)));
    return eqnn_concat_n(parts, 3);
}

static eqnn_tensor *f_losses(eqnn_tensor *const *x, int n, void *user)
{
    const int class_of[4] = { 1, 0, 2, 2 };
    eqnn_ints *i = eqnn_ints_make(eqnn_context(x[0]), 4, class_of, 3, 0);
    eqnn_tensor *parts[5];
    (void)n;
    (void)user;
    parts[0] = eqnn_mse(x[0], x[1]);
    parts[1] = eqnn_square(eqnn_mae(x[0], x[1]));
    parts[2] = eqnn_huber(x[0], x[1], 0.7);
    parts[3] = eqnn_cross_entropy(x[0], i);
    parts[4] = eqnn_mean(eqnn_norm(x[0]));
    return eqnn_concat_n(parts, 5);
}

static eqnn_tensor *f_unary(eqnn_tensor *const *x, int n, void *user)
{
    const eqnn_act *act = (const eqnn_act *)user;
    (void)n;
    return eqnn_map(x[0], *act, *act == EQNN_POW ? 1.7 : *act == EQNN_POLY_CUTOFF ? 6 : 0.3, 0);
}

static void check_pair(eqnn_function f, int rows, int cols, void *user)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *x[2];
    x[0] = eqnn_normal(c, "a", rows, cols);
    x[1] = eqnn_normal(c, "b", rows, cols);
    CHECK_DERIVATIVES_OF(f, x, 2, user, 2);
}

TEST(derivatives_of_two) { check_pair(f_div, 3, 4, NULL); }
TEST(derivatives_of_where) { check_pair(f_where, 3, 4, NULL); }
TEST(derivatives_of_atan2) { check_pair(f_atan2, 3, 4, NULL); }
/* Squares of the sides are too small or too large for a float. */
TEST(slopes_of_small_angles)
{
    eqnn_ctx *c = test_context();
    for (double size = 1e-30; size < 1e31; size *= 1e60) {
        double at[2] = { 3 * size, 4 * size }, none[2] = { 0, 0 };
        eqnn_tensor *y = eqnn_from_double(c, 1, 1, at), *x = eqnn_from_double(c, 1, 1, at + 1);
        eqnn_tensor *angle = eqnn_atan2(y, x);
        CHECK_NEAR(eqnn_value(eqnn_grad(angle, y)) * size, 0.16, 1e-7);
        CHECK_NEAR(eqnn_value(eqnn_grad(angle, x)) * size, -0.12, 1e-7);
        y = eqnn_from_double(c, 1, 1, none), x = eqnn_from_double(c, 1, 1, none);
        CHECK(eqnn_value(eqnn_grad(eqnn_atan2(y, x), y)) == 0);
    }
}

TEST(derivatives_of_rows) { check_pair(f_rows, 4, 3, NULL); }
TEST(derivatives_of_columns) { check_pair(f_columns, 4, 3, NULL); }
TEST(derivatives_of_softmax) { check_pair(f_softmax, 4, 3, NULL); }
TEST(derivatives_of_pieces) { check_pair(f_pieces, 4, 3, NULL); }
TEST(derivatives_of_maxima) { check_pair(f_extremes, 4, 3, NULL); }
TEST(derivatives_of_losses) { check_pair(f_losses, 4, 3, NULL); }

TEST(derivatives_of_matmul)
{
    for (int k = 0; k < 4; k++) {
        int t[2] = { k & 1, k >> 1 };
        check_pair(f_matmul, 4, 4, t);
    }
}

TEST(derivatives_of_every_function)
{
    for (int k = EQNN_IDENTITY; k <= EQNN_COSINE_BUMP; k++) {
        eqnn_ctx *c = test_context();
        eqnn_act act = (eqnn_act)k;
        const double at[6] = { 0.15, 0.35, 0.62, 0.83, 1.3, 2.1 };
        eqnn_tensor *x = eqnn_from_double(c, 2, 3, at);
        CHECK_DERIVATIVES_OF(f_unary, &x, 1, &act, 2);
    }
}

/* Are these the numbers of x? */
static int is(eqnn_tensor *x, const double *values)
{
    int same = eqnn_rows(x) > 0;
    for (int i = 0; i < eqnn_rows(x) * eqnn_cols(x); i++)
        same &= eqnn_at(x, i / eqnn_cols(x), i % eqnn_cols(x)) == values[i];
    return same;
}

/* --- functions by their names, against formulas of the C library --- */

static eqnn_tensor *power(eqnn_tensor *x) { return eqnn_pow(x, 3); }
static eqnn_tensor *leaky(eqnn_tensor *x) { return eqnn_leaky_relu(x, 0.2); }
static eqnn_tensor *clamped(eqnn_tensor *x) { return eqnn_square(eqnn_clamp(x, -1, 1.5)); }

TEST(functions_of_one)
{
    eqnn_tensor *(*const f[10])(eqnn_tensor *) = {
        power, eqnn_sigmoid, eqnn_relu, leaky, eqnn_gelu, eqnn_erf, eqnn_softplus, eqnn_elu,
        clamped, eqnn_abs };
    const double at[6] = { -2.1, -0.7, -0.2, 0.3, 1.2, 3.2 };
    eqnn_ctx *c = test_context();
    eqnn_tensor *x = eqnn_from_double(c, 2, 3, at), *y[10];
    for (int k = 0; k < 10; k++) {
        y[k] = f[k](x);
        CHECK_DERIVATIVES(f[k], x, 2);
    }
    for (int i = 0; i < 6; i++) {
        double t = at[i], cut = fmin(fmax(t, -1), 1.5);
        double want[10] = { t * t * t, 1 / (1 + exp(-t)), t > 0 ? t : 0, t > 0 ? t : 0.2 * t,
                            t * (1 + erf(t / sqrt(2))) / 2, erf(t), log(1 + exp(t)),
                            t > 0 ? t : exp(t) - 1, cut * cut, fabs(t) };
        for (int k = 0; k < 10; k++)
            CHECK_NEAR(eqnn_at(y[k], i / 3, i % 3), want[k], test_eps(1e-14, 3e-6));
    }
    CHECK_NEAR(eqnn_value(eqnn_pow(eqnn_full(c, 1, 1, 2), -1.5)), pow(2, -1.5), 1e-6);
}

/* Of equals the first gets the gradient. */
TEST(functions_of_two)
{
    eqnn_ctx *c = test_context();
    const double one[4] = { 1, -2, 3, 4 }, two[4] = { 2, -2, -3, 5 };
    const double same[4] = { 0, 1, 0, 0 }, least[4] = { 1, -2, -3, 4 }, most[4] = { 2, -2, 3, 5 };
    const double by_least[4] = { 1, 1, 0, 1 }, by_most[4] = { 0, 1, 1, 0 };
    eqnn_tensor *a = eqnn_from_double(c, 2, 2, one), *b = eqnn_from_double(c, 2, 2, two);
    eqnn_tensor *low = eqnn_min(a, b), *high = eqnn_max(a, b);
    CHECK(is(eqnn_equal(a, b), same) && is(low, least) && is(high, most));
    CHECK(is(eqnn_grad(eqnn_sum(low), a), by_least) && is(eqnn_grad(eqnn_sum(high), a), by_most));
    a = test_normal(c, 3, 2);
    b = test_normal(c, 3, 2);
    CHECK_DERIVATIVES2(eqnn_min, a, b, 2);
    CHECK_DERIVATIVES2(eqnn_max, a, b, 2);
}

static eqnn_tensor *pick_and_put(eqnn_tensor *x)
{
    const int column[3] = { 2, 0, 2 };
    eqnn_ints *i = eqnn_ints_make(eqnn_context(x), 3, column, 4, 0);
    return eqnn_put(eqnn_square(eqnn_pick(x, i)), i, 4);
}

TEST(one_entry_a_row)
{
    eqnn_ctx *c = test_context();
    const double rows[12] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12 };
    const double picked[12] = { 0, 0, 9, 0, 25, 0, 0, 0, 0, 0, 121, 0 };
    eqnn_tensor *x = eqnn_from_double(c, 3, 4, rows);
    CHECK(is(pick_and_put(x), picked));
    CHECK_DERIVATIVES(pick_and_put, test_normal(c, 3, 4), 2);
    eqnn_ints *wide = eqnn_ints_make(c, 3, (const int[]){ 0, 3, 4 }, 5, 0);
    CHECK(!eqnn_pick(x, wide));
    CHECK_ERROR(c, "pick: index 4 of row 2 lies outside 0..3");
    CHECK(!eqnn_put(eqnn_slice(x, 0, 1), wide, 4));
    CHECK_ERROR(c, "put: index 4 of row 2 lies outside 0..3");
}

TEST(logarithm_of_a_sum)
{
    eqnn_ctx *c = test_context();
    const double rows[6] = { 0.5, -1, 2, 1000, 1000, -1000 };
    eqnn_tensor *y = eqnn_logsumexp(eqnn_from_double(c, 2, 3, rows));
    CHECK(eqnn_rows(y) == 2 && eqnn_cols(y) == 1);
    CHECK_NEAR(eqnn_at(y, 0, 0), log(exp(0.5) + exp(-1) + exp(2)), test_eps(1e-14, 1e-6));
    CHECK_NEAR(eqnn_at(y, 1, 0), 1000 + log(2), test_eps(1e-14, 1e-6)); /* nothing overflows */
    CHECK_DERIVATIVES(eqnn_logsumexp, test_normal(c, 3, 4), 2);
    double none[6] = { -HUGE_VAL, -HUGE_VAL, -HUGE_VAL, -HUGE_VAL, 1, 1 }; /* a sum of nothing */
    eqnn_tensor *x = eqnn_from_double(c, 2, 3, none);
    y = eqnn_logsumexp(x);
    CHECK(eqnn_at(y, 0, 0) == -HUGE_VAL);
    CHECK_NEAR(eqnn_at(y, 1, 0), 1 + log(2), test_eps(1e-14, 1e-6));
    eqnn_tensor *slope = eqnn_vjp(y, eqnn_full(c, 2, 1, 1), x);
    for (int i = 0; i < 6; i++)
        CHECK_NEAR(eqnn_at(slope, i / 3, i % 3), i < 4 ? 0 : 0.5, test_eps(1e-14, 1e-6));
}

/* The n-th derivative by the tape, n times eqnn_grad, against the kernel's own n-th derivative. */
TEST(derivatives_of_high_order)
{
    const eqnn_act acts[5] = { EQNN_TANH, EQNN_SILU, EQNN_GELU, EQNN_SIN, EQNN_SUS };
    for (int k = 0; k < 5; k++) {
        eqnn_ctx *c = test_context();
        eqnn_tensor *x = eqnn_full(c, 1, 1, 0.4), *y = eqnn_map(x, acts[k], 0, 0);
        for (int order = 1; order <= 5; order++) {
            y = eqnn_grad(y, x);
            CHECK_NEAR(eqnn_value(y), eqnn_value(eqnn_map(x, acts[k], 0, order)),
                       test_eps(1e-11, 1e-4));
        }
    }
}

/* --- what a graph of operations does --- */

TEST(gradient_of_what_does_not_depend)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *x = eqnn_full(c, 2, 3, 1), *y = eqnn_sum(eqnn_full(c, 2, 3, 2));
    eqnn_tensor *dx = eqnn_grad(y, x);
    CHECK(eqnn_rows(dx) == 2 && eqnn_cols(dx) == 3 && eqnn_at(dx, 1, 2) == 0);
    CHECK(eqnn_value(eqnn_grad(y, y)) == 1);
}

TEST(gradient_by_intermediate)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *x = eqnn_full(c, 1, 1, 3), *u = eqnn_square(x), *y = eqnn_mul(u, x), *xs[2],
                *dx[2];
    xs[0] = x;
    xs[1] = u;
    CHECK(eqnn_grads(y, xs, 2, dx));
    CHECK_NEAR(eqnn_value(dx[0]), 27, 1e-6); /* all of x^3 */
    CHECK_NEAR(eqnn_value(dx[1]), 3, 1e-6);  /* u alone    */
}

TEST(norm_at_zero)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *x = eqnn_zeros(c, 2, 3), *y = eqnn_norm(x);
    CHECK(eqnn_at(y, 0, 0) == 0);
    eqnn_tensor *g = eqnn_grad(eqnn_sum(y), x);
    for (int k = 0; k < 3; k++) CHECK(eqnn_at(g, 1, k) == 0);
    eqnn_tensor *h = eqnn_grad(eqnn_sum(eqnn_square(g)), x);
    CHECK(eqnn_at(h, 0, 0) == 0);
}

/* Short rows have the gradients of long ones: u = x / |x|, and (v - u u.v) / |x| after a second. */
TEST(norm_of_short_rows)
{
    eqnn_ctx *c = test_context();
    for (int digits = 1; digits <= 18; digits++) {
        double s = pow(10, -digits);
        double row[3] = { 2 * s, -1 * s, 2 * s }, direction[3] = { 1, 2, 0 };
        eqnn_tensor *x = eqnn_from_double(c, 1, 3, row), *v = eqnn_from_double(c, 1, 3, direction);
        eqnn_tensor *g = eqnn_grad(eqnn_norm(x), x);
        eqnn_tensor *h = eqnn_grad(eqnn_sum(eqnn_mul(g, v)), x);
        for (int k = 0; k < 3; k++) {
            CHECK_NEAR(eqnn_at(g, 0, k), row[k] / (3 * s), test_eps(1e-14, 1e-6));
            CHECK_NEAR(eqnn_at(h, 0, k) * 3 * s, direction[k], test_eps(1e-13, 1e-5));
        }
    }
}

/* --- made once a step --- */

static int times_made;
static eqnn_tensor *squared_weight(eqnn_ctx *c, const void *user)
{
    (void)user;
    times_made++;
    return eqnn_square(eqnn_param(c, "w", 2, 2, NULL));
}

static eqnn_tensor *with_squared(eqnn_tensor *const *x, int n, void *user)
{
    (void)n, (void)user;
    return eqnn_matmul(x[0], eqnn_once(eqnn_context(x[0]), "squared", squared_weight, NULL));
}

TEST(made_once)
{
    eqnn_ctx *c = test_context();
    double gradient[3][4], ones[4] = { 1, 1, 1, 1 };
    for (int way = 0; way < 3; way++) { /* shared; with a checkpoint; after a rewind */
        double data[6] = { 1, 2, -1, 0.5, 0.25, -2 };
        eqnn_tensor *x = eqnn_from_double(c, 3, 2, data), *y;
        times_made = 0;
        if (way == 2) {
            eqnn_mark m = eqnn_mark_make(c);
            with_squared(&x, 1, NULL);
            eqnn_rewind(m, NULL);
        }
        y = with_squared(&x, 1, NULL);
        y = way == 1 ? eqnn_checkpoint(with_squared, &y, 1, NULL, 0) : with_squared(&y, 1, NULL);
        CHECK(times_made == 1 + (way > 0));
        eqnn_backward(eqnn_sum(eqnn_square(y)));
        for (int i = 0; i < 4; i++)
            gradient[way][i] =
                eqnn_at(eqnn_gradient(eqnn_parameter(c, "w")), i / 2, i % 2);
        eqnn_zero_gradients(c);
        eqnn_reset(c);
    }
    for (int i = 0; i < 4; i++)
        for (int way = 1; way < 3; way++)
            CHECK_NEAR(gradient[way][i], gradient[0][i], 1e-5 * (1 + fabs(gradient[0][i])));
    eqnn_tensor *x = test_normal(c, 3, 2);
    times_made = 0;
    int recording = eqnn_recording(c, 0);
    with_squared(&x, 1, NULL);
    eqnn_recording(c, recording);
    with_squared(&x, 1, NULL); /* the unrecorded one would be a constant */
    CHECK(times_made == 2);
    CHECK(eqnn_set(eqnn_parameter(c, "w"), ones));
    CHECK_NEAR(eqnn_at(with_squared(&x, 1, NULL), 0, 0), eqnn_at(x, 0, 0) + eqnn_at(x, 0, 1), 1e-6);
    CHECK(times_made == 3);
    CHECK_OK(c);
}

/* A weight is a loss like any other: its gradient is 1. A constant is none. */
TEST(backward_of_a_weight)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *w = eqnn_param(c, "w", 1, 1, NULL);
    CHECK(eqnn_backward(w) && eqnn_backward(w));
    CHECK_NEAR(eqnn_value(eqnn_gradient(w)), 2, 0);
    CHECK(!eqnn_backward(eqnn_full(c, 1, 1, 3)));
    CHECK_ERROR(c, "backward: y was not recorded");
}

/* w - rate dw, with a rate that is changed between the steps */
TEST(descent)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *w = eqnn_param(c, "w", 2, 2, NULL);
    eqnn_sgd *sgd = eqnn_sgd_make(c, &(eqnn_sgd_opts){ .rate = 0.25 });
    double at = eqnn_at(w, 1, 0);
    for (int k = 0; k < 2; k++) {
        CHECK(eqnn_backward(eqnn_scale(eqnn_sum(eqnn_square(w)), 0.5))); /* dw = w */
        CHECK(eqnn_sgd_step(sgd));
        at -= (k ? 0.5 : 0.25) * at;
        CHECK_NEAR(eqnn_at(w, 1, 0), at, 1e-6);
        eqnn_sgd_rate(sgd, 0.5);
    }
    eqnn_sgd_rate(sgd, -1);
    CHECK_ERROR(c, "-1 is no rate");
}

/* What was not recorded has no gradient; zeros would be forces of nothing. */
TEST(grad_of_what_was_not_recorded)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *x = test_normal(c, 3, 2), *plain = eqnn_full(c, 1, 1, 2);
    eqnn_recording(c, 0);
    eqnn_tensor *y = eqnn_sum(eqnn_square(x));
    CHECK(!eqnn_grad(y, x));
    CHECK_ERROR(c, "grad: y was not recorded: recording is off");
    CHECK_NEAR(eqnn_at(eqnn_grad(plain, plain), 0, 0), 1, 0);
    eqnn_recording(c, 1);
    CHECK_NEAR(eqnn_at(eqnn_grad(plain, x), 1, 1), 0, 0); /* does not depend on x */
    CHECK_OK(c);
    CHECK(!eqnn_grad(y, x)); /* switched on too late */
    CHECK_ERROR(c, "grad: y was not recorded: recording was off");
    eqnn_recording(c, 0);
    eqnn_tensor *square = eqnn_square(x);
    eqnn_recording(c, 1);
    CHECK(!eqnn_grad(eqnn_sum(square), x)); /* in the middle */
    CHECK_ERROR(c, "something was made of x while recording was off");
    x = test_normal(c, 3, 2);
    CHECK(eqnn_norm(x)); /* whose value is made aside: that is not missed */
    CHECK_SAME(eqnn_grad(eqnn_sum(plain), x), eqnn_zeros(c, 3, 2), 0);
    eqnn_recording(c, 0);
    eqnn_tensor *norm = eqnn_norm(x);
    eqnn_recording(c, 1);
    CHECK(!eqnn_grad(eqnn_sum(norm), x));
    CHECK_ERROR(c, "something was made of x while recording was off");
    eqnn_tensor *kept = eqnn_keep(test_normal(c, 3, 2)), *other = eqnn_keep(test_normal(c, 3, 2));
    eqnn_recording(c, 0);
    CHECK(eqnn_square(kept));
    eqnn_recording(c, 1);
    eqnn_reset(c); /* what was made of it is gone, and with it the gap */
    CHECK_SAME(eqnn_grad(eqnn_sum(eqnn_square(other)), kept), eqnn_zeros(c, 3, 2), 0);
}

/* --- checkpoints --- */

static eqnn_tensor *block(eqnn_tensor *const *x, int n, void *user)
{
    eqnn_tensor *w = eqnn_param(eqnn_context(x[0]), "w", 3, 3, NULL);
    (void)n;
    return eqnn_dropout(
        eqnn_scale(eqnn_tanh(eqnn_matmul(eqnn_mul(x[0], x[1]), w)), *(const double *)user), "drop",
        0.3);
}

/* sum of squares of the forces of sum(block^2): second order through the block */
static eqnn_tensor *force_loss(eqnn_ctx *c, int checkpointed, eqnn_tensor **dx)
{
    double factor = 1.5;
    eqnn_tensor *x[2];
    x[0] = eqnn_normal(c, "x", 4, 3);
    x[1] = eqnn_normal(c, "y", 4, 3);
    eqnn_training(c, 1);
    eqnn_tensor *y = checkpointed ? eqnn_checkpoint(block, x, 2, &factor, sizeof factor)
                                  : block(x, 2, &factor);
    *dx = eqnn_grad(eqnn_sum(eqnn_square(y)), x[0]);
    return eqnn_sum(eqnn_square(*dx));
}

TEST(checkpoint_in_forces)
{
    double loss[2], force[2], slope[2], third[2];
    for (int k = 0; k < 2; k++) {
        eqnn_ctx *c = test_context();
        eqnn_tensor *dx, *y = force_loss(c, k, &dx);
        loss[k] = eqnn_value(y);
        force[k] = eqnn_at(dx, 1, 2);
        CHECK(eqnn_backward(y));
        slope[k] = eqnn_at(eqnn_gradient(eqnn_parameter(c, "w")), 1, 2);
        third[k] = eqnn_at(
            eqnn_grad(eqnn_sum(eqnn_square(eqnn_grad(y, eqnn_parameter(c, "w")))), dx), 0, 1);
        CHECK_OK(c);
    }
    CHECK_NEAR(loss[1], loss[0], test_eps(1e-13, 1e-5));
    CHECK_NEAR(force[1], force[0], test_eps(1e-13, 1e-5));
    CHECK_NEAR(slope[1], slope[0], test_eps(1e-13, 1e-5));
    CHECK_NEAR(third[1], third[0], test_eps(1e-12, 1e-4));
    CHECK(slope[0] != 0);
}

/* The slope of an energy: a block that differentiates. */
static eqnn_tensor *slope_of(eqnn_tensor *const *x, int n, void *user)
{
    eqnn_tensor *w = eqnn_param(eqnn_context(x[0]), "w", 3, 3, NULL);
    (void)n;
    (void)user;
    return eqnn_grad(eqnn_sum(eqnn_square(eqnn_tanh(eqnn_matmul(x[0], w)))), x[0]);
}

TEST(checkpoint_of_a_slope)
{
    eqnn_tensor *y[2] = { NULL, NULL }, *dx[2] = { NULL, NULL }, *dw[2] = { NULL, NULL };
    eqnn_ctx *c = test_context();
    eqnn_tensor *x = eqnn_keep(eqnn_normal(c, "x", 4, 3));
    for (int k = 0; k < 2; k++) {
        eqnn_tensor *slope = k ? eqnn_checkpoint(slope_of, &x, 1, NULL, 0) : slope_of(&x, 1, NULL);
        eqnn_tensor *loss = eqnn_sum(eqnn_sin(slope));
        y[k] = eqnn_keep(slope);
        dx[k] = eqnn_keep(eqnn_grad(loss, x));
        CHECK(eqnn_backward(loss));
        dw[k] = eqnn_keep(eqnn_gradient(eqnn_parameter(c, "w")));
        eqnn_zero_gradients(c);
        eqnn_reset(c);
    }
    CHECK_OK(c);
    CHECK_SAME(y[1], y[0], 0);
    CHECK_SAME(dx[1], dx[0], test_eps(1e-13, 1e-5));
    CHECK_SAME(dw[1], dw[0], test_eps(1e-13, 1e-5));
    for (int k = 0; k < 2; k++) { /* a sweep within a sweep, both after the same weight */
        eqnn_tensor *slope = k ? eqnn_checkpoint(slope_of, &x, 1, NULL, 0) : slope_of(&x, 1, NULL);
        dw[k] = eqnn_grad(eqnn_sum(eqnn_sin(slope)), eqnn_parameter(c, "w"));
    }
    CHECK_SAME(dw[1], dw[0], test_eps(1e-13, 1e-5));
    eqnn_recording(c, 0); /* where nothing is recorded a block has no slopes either */
    CHECK(!eqnn_checkpoint(slope_of, &x, 1, NULL, 0));
    CHECK_ERROR(c, "recording is off");
}

/* A slope of a block that holds another. */
static eqnn_tensor *slope_twice(eqnn_tensor *const *x, int n, void *user)
{
    int within = *(int *)user;
    eqnn_tensor *y = within ? eqnn_checkpoint(slope_of, x, n, NULL, 0) : slope_of(x, n, NULL);
    return eqnn_grad(eqnn_sum(eqnn_square(eqnn_sin(y))), x[0]);
}

TEST(checkpoint_in_a_checkpoint)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *x = eqnn_normal(c, "x", 4, 3), *d[3][2], *twice[2];
    for (int k = 0; k < 3; k++) {
        int within = k > 0;
        eqnn_tensor *y = k > 1 ? eqnn_checkpoint(slope_twice, &x, 1, &within, sizeof within)
                               : slope_twice(&x, 1, &within);
        eqnn_tensor *of[2] = { eqnn_parameter(c, "w"), x };
        eqnn_grads(eqnn_sum(eqnn_cos(y)), of, 2, d[k]);
        for (int i = 0; k && i < 2; i++) CHECK_SAME(d[k][i], d[0][i], test_eps(1e-12, 1e-4));
    }
    eqnn_tensor *same[2] = { x, x };
    eqnn_grads(eqnn_sum(eqnn_sin(x)), same, 2, twice);
    CHECK_SAME(twice[0], twice[1], 0);
}

static eqnn_tensor *deep(eqnn_tensor *const *x, int n, void *user)
{
    eqnn_tensor *y = x[0];
    (void)n;
    (void)user;
    for (int i = 0; i < 50; i++) y = eqnn_sin(y);
    return y;
}

static eqnn_tensor *parameter_block(eqnn_tensor *const *x, int n, void *user)
{
    (void)n;
    (void)user;
    return eqnn_param(eqnn_context(x[0]), "w", 2, 2, NULL);
}

/* What a block returns is a parameter, as no operation made it. */
TEST(checkpoint_of_a_parameter)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *x = eqnn_full(c, 2, 2, 1), *w = parameter_block(&x, 1, NULL);
    CHECK(eqnn_backward(eqnn_sum(eqnn_checkpoint(parameter_block, &x, 1, NULL, 0))));
    CHECK(eqnn_at(eqnn_gradient(w), 1, 1) == 1);
    eqnn_tensor *y = eqnn_sum(eqnn_checkpoint(parameter_block, &x, 1, NULL, 0));
    CHECK(eqnn_at(eqnn_grad(y, w), 1, 1) == 1);
}

TEST(checkpoint_saves_memory)
{
    size_t used[2];
    for (int k = 0; k < 2; k++) {
        eqnn_ctx *c = test_context();
        eqnn_tensor *x = eqnn_normal(c, "x", 100, 100), *y = x;
        for (int i = 0; i < 10; i++)
            y = k ? eqnn_checkpoint(deep, &y, 1, NULL, 0) : deep(&y, 1, NULL);
        used[k] = eqnn_memory_use(c).step;
        CHECK_OK(c);
    }
    CHECK(used[1] * 10 < used[0]);
    test_note("bytes plain %zu, checkpointed %zu", used[0], used[1]);
}

/* --- users' operations --- */

static eqnn_tensor *cube_value(eqnn_tensor *const *x, int n, void *user)
{
    (void)n;
    (void)user;
    return eqnn_mul(x[0], eqnn_square(x[0]));
}

static int cube_rule(eqnn_tensor *const *x, int n, eqnn_tensor *y, eqnn_tensor *g, const int *want,
                     eqnn_tensor **dx, void *user)
{
    (void)n;
    (void)y;
    (void)user;
    if (want[0]) dx[0] = eqnn_scale(eqnn_mul(g, eqnn_square(x[0])), 3);
    return 1;
}

static eqnn_tensor *cube(eqnn_tensor *x)
{
    const eqnn_custom_op op = { "cube", cube_value, cube_rule };
    return eqnn_custom(&op, &x, 1, NULL, 0);
}

TEST(custom_operation)
{
    eqnn_ctx *c = test_context();
    CHECK_DERIVATIVES(cube, test_normal(c, 3, 2), 2);
}

static eqnn_tensor *same_value(eqnn_tensor *const *x, int n, void *user)
{
    (void)n;
    (void)user;
    return x[0];
}

static int failing_rule(eqnn_tensor *const *x, int n, eqnn_tensor *y, eqnn_tensor *g,
                        const int *want, eqnn_tensor **dx, void *user)
{
    (void)x, (void)n, (void)y, (void)g, (void)want, (void)dx, (void)user;
    return 0;
}

/* A context that has no memory but the caller's */
static eqnn_ctx *context_in(void *buffer, size_t size)
{
    eqnn_opts o;
    memset(&o, 0, sizeof o);
    o.buffer = buffer;
    o.buffer_size = size;
    o.threads = 1;
    return eqnn_make(&o);
}

/* Neither the operation nor its name need outlast the call: not in errors of its rule, nor in those
   of what comes after it and names the last operation. */
TEST(custom_operation_is_copied)
{
    static char buffer[200000];
    eqnn_ctx *c = context_in(buffer, sizeof buffer);
    char name[8] = "mine";
    eqnn_custom_op op = { NULL, cube_value, failing_rule };
    op.name = name;
    eqnn_tensor *x = test_normal(c, 2, 2), *y = eqnn_sum(eqnn_custom(&op, &x, 1, NULL, 0));
    memcpy(name, "yours", 6);
    CHECK(!eqnn_grad(y, x));
    CHECK_ERROR(c, "mine: its rule failed");
    op.value = same_value;
    CHECK(eqnn_custom(&op, &x, 1, NULL, 0) != NULL);
    memcpy(name, "ours", 5);
    eqnn_format(c, "%300000d", 1);
    CHECK_ERROR(c, "custom: out of memory");
    eqnn_free(c);
}

static eqnn_tensor *old_value(eqnn_tensor *const *x, int n, void *user)
{
    (void)x;
    (void)n;
    return *(eqnn_tensor **)user;
}

static int reversal_rule(eqnn_tensor *const *x, int n, eqnn_tensor *y, eqnn_tensor *g,
                         const int *want, eqnn_tensor **dx, void *user)
{
    (void)x;
    (void)n;
    (void)y;
    (void)user;
    if (want[0]) dx[0] = eqnn_neg(g);
    return 1;
}

/* The value is the argument itself: a tensor that a node made, or a parameter. */
TEST(custom_operation_returns_its_argument)
{
    eqnn_ctx *c = test_context();
    const eqnn_custom_op op = { "reversal", same_value, reversal_rule };
    const eqnn_custom_op old = { "old", old_value, reversal_rule };
    eqnn_tensor *x = eqnn_full(c, 1, 2, 1), *h = eqnn_scale(x, 3);
    eqnn_tensor *y = eqnn_custom(&op, &h, 1, NULL, 0);
    CHECK(eqnn_at(y, 0, 1) == 3 && eqnn_at(eqnn_grad(eqnn_sum(y), x), 0, 1) == -3);
    CHECK(eqnn_at(eqnn_grad(eqnn_sum(h), x), 0, 1) == 3);
    eqnn_tensor *w = eqnn_param(c, "w", 1, 2, NULL);
    CHECK(eqnn_backward(eqnn_sum(eqnn_custom(&op, &w, 1, NULL, 0))));
    CHECK(eqnn_at(eqnn_gradient(w), 0, 1) == -1);
    eqnn_reset(c);
    h = eqnn_full(c, 1, 2, 1);
    CHECK(!eqnn_custom(&old, &h, 1, &x, sizeof x));
    CHECK_ERROR(c, "old: a tensor of an earlier step");
}

/* --- memory --- */

TEST(rewind_keeps_one)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *x = eqnn_normal(c, "x", 50, 50);
    double before = eqnn_at(x, 49, 49);
    eqnn_mark m = eqnn_mark_make(c);
    eqnn_tensor *y = x;
    for (int i = 0; i < 20; i++) y = eqnn_scale(y, 2);
    size_t used = eqnn_memory_use(c).step;
    y = eqnn_rewind(m, y);
    CHECK_NEAR(eqnn_at(y, 49, 49), before * 1048576, test_eps(1e-12, 1e-5));
    CHECK(eqnn_memory_use(c).step < used);
    CHECK(eqnn_at(x, 49, 49) == before);
}

TEST(rewind_refuses)
{
    eqnn_ctx *c = test_context(), *other = test_context();
    eqnn_tensor *x = eqnn_full(c, 2, 2, 1);
    eqnn_reset(c);
    eqnn_mark m = eqnn_mark_make(c);
    CHECK(!eqnn_rewind(m, x));
    CHECK_ERROR(c, "rewind: a tensor of an earlier step");
    CHECK(!eqnn_rewind(m, eqnn_full(other, 2, 2, 1)));
    CHECK_ERROR(c, "rewind: the tensor belongs to another context");
}

TEST(stale_tensor_is_refused)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *x = eqnn_full(c, 2, 2, 1), *kept = eqnn_keep(x);
    eqnn_reset(c);
    CHECK(eqnn_sum(x) == NULL);
    CHECK_ERROR(c, "earlier step");
    CHECK(eqnn_value(eqnn_sum(kept)) == 4);
    CHECK(!eqnn_data(x));
    CHECK_ERROR(c, "data: a tensor of an earlier step");
}

/* Integers and graphs as well, also those that a rewind has forgotten. */
TEST(stale_integers_and_graphs)
{
    static const int two[2] = { 0, 1 };
    for (int rewound = 0; rewound < 2; rewound++) {
        eqnn_ctx *c = test_context();
        eqnn_mark m = eqnn_mark_make(c);
        eqnn_graph_opts lasts = { .sources = 2, .targets = 2, .keep = 1 }, step = lasts;
        step.keep = 0;
        eqnn_ints *lasting = eqnn_ints_make(c, 2, two, 2, 1), *i = eqnn_ints_make(c, 2, two, 2, 0);
        const eqnn_graph *kept = eqnn_graph_make(c, 1, two, two + 1, &lasts);
        const eqnn_graph *g = eqnn_graph_make(c, 1, two, two + 1, &step);
        CHECK(eqnn_take(eqnn_full(c, 2, 1, 3), i) && eqnn_gather(eqnn_full(c, 2, 1, 3), g));
        if (rewound) eqnn_rewind(m, NULL);
        else eqnn_reset(c);
        for (int k = 0; k < 40; k++) eqnn_ints_make(c, 2, two, 2, 0); /* over what they were */
        eqnn_tensor *x = eqnn_full(c, 2, 1, 3);
        CHECK(eqnn_take(x, lasting) && eqnn_gather(x, kept) && eqnn_ints_count(lasting) == 2);
        if (!rewound) { /* after a rewind the first new ones stand where the old ones stood */
            CHECK(!eqnn_take(x, i));
            CHECK_ERROR(c, "take: integers of an earlier step");
            CHECK(!eqnn_embedding(c, i, "e", 2, 3, NULL) && !eqnn_ints_data(i));
            CHECK_ERROR(c, "embedding: integers of an earlier step");
        }
        CHECK(!eqnn_gather(x, g));
        CHECK_ERROR(c, "gather: a graph of an earlier step");
    }
}

TEST(error_is_sticky)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *a = eqnn_full(c, 2, 3, 1), *b = eqnn_full(c, 4, 3, 1);
    CHECK(eqnn_matmul(a, b) == NULL);
    CHECK(eqnn_add(a, a) == NULL);
    CHECK(eqnn_rows(NULL) == 0 && isnan(eqnn_value(NULL)));
    CHECK_ERROR(c, "matmul: [2,3] x [4,3]: inner sizes differ");
    CHECK(eqnn_add(a, a) != NULL);
    CHECK(eqnn_add(a, NULL) == NULL);
    CHECK_ERROR(c, "missing");
}

/* A text is no format, and what is missing is no crash. */
TEST(error_as_a_text)
{
    eqnn_ctx *c = test_context();
    CHECK(!eqnn_fail_text(c, "100%s sure"));
    CHECK(!eqnn_fail_text(c, "another"));
    CHECK_TEXT(eqnn_error(c), "100%s sure");
    eqnn_clear(c);
    CHECK(!eqnn_fail_text(c, NULL));
    CHECK_TEXT(eqnn_error(c), "");
    CHECK(!eqnn_fail_text(NULL, "nobody hears"));
    CHECK_TEXT(eqnn_version(), EQNN_VERSION);
    eqnn_clear(c);
}

TEST(one_buffer_only)
{
    static char buffer[2000000];
    eqnn_ctx *c = context_in(buffer, sizeof buffer);
    eqnn_tensor *x = eqnn_normal(c, "x", 20, 20);
    CHECK(eqnn_value(eqnn_sum(eqnn_square(x))) > 0);
    CHECK(eqnn_keep(x) != NULL);
    CHECK(eqnn_normal(c, "x", 2000, 2000) == NULL);
    eqnn_memory m = eqnn_memory_use(c);
    char use[60];
    snprintf(use, sizeof use, "bytes asked for, %lu in use", (unsigned long)(m.step + m.lasting));
    CHECK(m.step > 0 && m.lasting > 0);
    CHECK_ERROR(c, "random: out of memory: ");
    CHECK(eqnn_normal(c, "x", 2000, 2000) == NULL);
    CHECK_ERROR(c, use);
    eqnn_free(c);
}

TEST(same_numbers_for_the_same_name)
{
    eqnn_ctx *c = test_context();
    double a = eqnn_at(eqnn_normal(c, "x", 3, 3), 1, 1),
           b = eqnn_at(eqnn_normal(c, "y", 3, 3), 1, 1);
    CHECK(a == eqnn_at(eqnn_normal(c, "x", 3, 3), 1, 1));
    CHECK(a != b);
    eqnn_tick(c);
    CHECK(a != eqnn_at(eqnn_normal(c, "x", 3, 3), 1, 1));
}

/* The first of equals, infinities beside it, a segment of nothing. */
TEST(maxima)
{
    static const double values[12] = { 1, 3, 3, -HUGE_VAL, 2, -HUGE_VAL, 5, 5, -1, 0, -2, 0 };
    static const double cols[4] = { 3, 2, 5, 0 }, places[4] = { 1, 1, 0, 0 };
    static const double rows[3] = { 5, 5, 3 }, parts[9] = { 1, 3, 3, 0, 0, 0, 5, 5, 0 };
    static const double dcols[12] = { 0, 1, 0, 0, 1, 0, 1, 0, 0, 1, 0, 0 };
    static const double drows[12] = { 0, 0, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0 };
    static const double dparts[12] = { 1, 1, 1, 0, 0, 0, 1, 1, 0, 0, 0, 1 };
    static const int segment[4] = { 0, 0, 2, 2 };
    eqnn_ctx *c = test_context();
    eqnn_ints *s = eqnn_ints_make(c, 4, segment, 3, 0);
    eqnn_tensor *x = eqnn_from_double(c, 4, 3, values);
    eqnn_tensor *a = eqnn_max_cols(x), *b = eqnn_max_rows(x), *d = eqnn_segment_max(x, s);
    CHECK(is(a, cols) && is(b, rows) && is(d, parts) && is(eqnn_argmax(x), places));
    CHECK(is(eqnn_grad(eqnn_sum(a), x), dcols));
    CHECK(is(eqnn_grad(eqnn_sum(b), x), drows));
    CHECK(is(eqnn_grad(eqnn_sum(d), x), dparts));
    CHECK_OK(c);
}

TEST(nothing_of_nothing)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *x = eqnn_zeros(c, 0, 3), *w = eqnn_full(c, 3, 4, 1);
    eqnn_ints *none = eqnn_ints_make(c, 0, NULL, 2, 0);
    CHECK(eqnn_rows(eqnn_matmul(x, w)) == 0 && eqnn_cols(eqnn_matmul(x, w)) == 4);
    CHECK(eqnn_value(eqnn_sum(x)) == 0);
    CHECK(eqnn_value(eqnn_mse(x, x)) == 0);
    CHECK(eqnn_rows(eqnn_collect(x, none)) == 2 && eqnn_at(eqnn_collect(x, none), 1, 1) == 0);
    CHECK(eqnn_rows(eqnn_segment_max(x, none)) == 2);
    CHECK(eqnn_at(eqnn_sum_rows(x), 0, 2) == 0);
    eqnn_tensor *g = eqnn_grad(eqnn_sum(eqnn_matmul(x, w)), w);
    CHECK(eqnn_at(g, 2, 3) == 0);
    eqnn_tensor *y = eqnn_zeros(c, 3, 0);
    g = eqnn_grad(eqnn_sum(eqnn_columns(y, eqnn_ints_make(c, 0, NULL, 0, 0))), y);
    CHECK(eqnn_rows(g) == 3 && eqnn_cols(g) == 0);
    CHECK_OK(c);
}

TEST(labels_are_kept_and_refused)
{
    eqnn_ctx *c = test_context();
    const eqnn_irreps *v = eqnn_irreps_make(c, "2x0e+2x1o"), *s = eqnn_irreps_make(c, "8x0e");
    eqnn_tensor *x = eqnn_as(eqnn_normal(c, "x", 3, 8), v), *y = eqnn_normal(c, "y", 3, 1);
    CHECK(eqnn_label_of(eqnn_add(x, x)) == v && eqnn_label_of(eqnn_mul(x, y)) == v);
    CHECK(eqnn_label_of(eqnn_slice(x, 2, 6)) == eqnn_irreps_make(c, "2x1o"));
    CHECK(eqnn_label_of(eqnn_concat(x, y)) == eqnn_irreps_make(c, "2x0e+2x1o+1x0e"));
    CHECK_OK(c);
    CHECK(!eqnn_silu(x));
    CHECK_ERROR(c, "2x0e+2x1o is not invariant");
    CHECK(!eqnn_add(x, eqnn_as(x, s)));
    CHECK_ERROR(c, "do not turn alike");
    CHECK(!eqnn_mul(x, eqnn_as(x, NULL)));
    CHECK_ERROR(c, "mul: 2x0e+2x1o times");
    CHECK(!eqnn_affine(x, eqnn_as(x, NULL), y));
    CHECK_ERROR(c, "affine: no label times 2x0e+2x1o");
    CHECK(!eqnn_affine(x, y, eqnn_as(x, s)));
    CHECK_ERROR(c, "affine: ");
    CHECK(!eqnn_affine(x, y, eqnn_zeros(c, 2, 8)));
    CHECK_ERROR(c, "affine: [3,1] and [2,8] do not fit");
    CHECK(eqnn_label_of(eqnn_affine(x, y, x)) == v);
    CHECK(!eqnn_pow(x, 2));
    CHECK_ERROR(c, "pow: 2x0e+2x1o is not invariant");
    CHECK(!eqnn_square(x));
    CHECK_ERROR(c, "square: 2x0e+2x1o is not invariant");
    CHECK(!eqnn_slice(x, 3, 4));
    CHECK_ERROR(c, "cut through");
    CHECK(!eqnn_as(x, eqnn_irreps_make(c, "1x1o")));
    CHECK_ERROR(c, "columns");
    CHECK(eqnn_label_of(eqnn_grad(eqnn_sum(eqnn_square(eqnn_as(x, NULL))), x)) == v);
    CHECK_OK(c);
}

/* 80 blocks are more than are put on the stack. */
TEST(labels_of_many_blocks)
{
    eqnn_ctx *c = test_context();
    char text[40 * 10 + 1] = "";
    for (int i = 0; i < 40; i++) strcat(text, i ? "+1x0e+1x1o" : "1x0e+1x1o");
    const eqnn_irreps *many = eqnn_irreps_make(c, text);
    eqnn_tensor *x = eqnn_as(eqnn_normal(c, "x", 2, 160), many);
    CHECK(eqnn_label_of(eqnn_slice(x, 0, 160)) == many);
    CHECK(eqnn_label_of(eqnn_slice(x, 4, 152))->blocks == 76);
    CHECK(eqnn_label_of(eqnn_concat(eqnn_slice(x, 0, 80), eqnn_slice(x, 80, 80))) == many);
}

TEST_MAIN
