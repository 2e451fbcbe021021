/* ode.c - integrators: orders, exact solutions, derivatives, the adjoint equation, symplecticity */
#include "test.h"

/* ---- fields ---- */

/* A driven pendulum of states (x, v): x' = v, v' = -sin x + 0.3 cos t. */
static eqnn_tensor *pendulum(eqnn_tensor *y, double t, void *user)
{
    (void)user;
    eqnn_tensor *x = eqnn_slice(y, 0, 1), *v = eqnn_slice(y, 1, 1);
    return eqnn_concat(v, eqnn_shift(eqnn_neg(eqnn_sin(x)), 0.3 * cos(t)));
}

/* The same from (1, 0) at 0 to t by 4000 steps of the classical method in plain C. */
static void pendulum_exactly(double t, double y[2])
{
    double h = t / 4000;
    y[0] = 1, y[1] = 0;
    for (int i = 0; i < 4000; i++) {
        double k[4][2], w[4] = { 1, 2, 2, 1 }, a[4] = { 0, 0.5, 0.5, 1 };
        for (int s = 0; s < 4; s++) {
            double x = y[0] + (s ? h * a[s] * k[s - 1][0] : 0);
            k[s][0] = y[1] + (s ? h * a[s] * k[s - 1][1] : 0);
            k[s][1] = -sin(x) + 0.3 * cos((i + a[s]) * h);
        }
        for (int s = 0; s < 4; s++)
            for (int j = 0; j < 2; j++) y[j] += h / 6 * w[s] * k[s][j];
    }
}

/* y' = w y^2 cos t; y = 1 / (1/y0 - w sin t). user: w, a tensor; NULL is 1. */
static eqnn_tensor *quadratic(eqnn_tensor *y, double t, void *user)
{
    eqnn_tensor *k = eqnn_scale(eqnn_square(y), cos(t));
    return user ? eqnn_mul(k, *(eqnn_tensor **)user) : k;
}

/* H = 1/2 p^T p (1 + q1^2) + 1/2 q^T q + q1^2 q2 of states (q1, q2, p1, p2): not separable. */
static eqnn_tensor *hamiltonian(eqnn_tensor *y)
{
    eqnn_tensor *q = eqnn_slice(y, 0, 2), *p = eqnn_slice(y, 2, 2), *q1 = eqnn_slice(y, 0, 1);
    eqnn_tensor *kinetic = eqnn_mul(eqnn_sum_cols(eqnn_square(p)), eqnn_shift(eqnn_square(q1), 1));
    eqnn_tensor *twist = eqnn_mul(eqnn_square(q1), eqnn_slice(y, 1, 1));
    eqnn_tensor *potential = eqnn_sum_cols(eqnn_square(q));
    return eqnn_add(eqnn_scale(eqnn_add(kinetic, potential), 0.5), twist);
}

/* (q', p') = (dH/dp, -dH/dq) by the tape, also where nothing is recorded */
static eqnn_tensor *symplectic(eqnn_tensor *y, double t, void *user)
{
    eqnn_ctx *c = eqnn_context(y);
    int recording = eqnn_recording(c, 1);
    (void)t, (void)user;
    eqnn_tensor *d = eqnn_grad(eqnn_sum(hamiltonian(y)), y);
    eqnn_tensor *q = eqnn_slice(d, 2, 2), *p = eqnn_neg(eqnn_slice(d, 0, 2));
    eqnn_tensor *k = eqnn_concat(q, p);
    eqnn_recording(c, recording);
    return k;
}

static eqnn_tensor *network(eqnn_tensor *y, double t, void *user)
{
    eqnn_mlp_opts o;
    memset(&o, 0, sizeof o);
    o.act = EQNN_TANH;
    (void)user;
    eqnn_tensor *k = eqnn_mlp(y, "net", "8,3", &o);
    return eqnn_shift(k, 0.1 * sin(t));
}

static eqnn_ode_opts method(eqnn_ode_method m, double step)
{
    eqnn_ode_opts o;
    memset(&o, 0, sizeof o);
    o.method = m;
    o.step = step;
    if (m == EQNN_DOPRI5 && step > 0) o.rtol = 1e30; /* steps as long as they are asked for */
    return o;
}

/* ---- values ---- */

static double error_at(eqnn_ctx *c, const eqnn_ode_opts *o, double middle, double end, int which)
{
    double start[2] = { 1, 0 }, times[3] = { 0, middle, end }, exact[2];
    eqnn_tensor *y[3];
    if (!eqnn_ode(pendulum, eqnn_from_double(c, 1, 2, start), times, 3, y, NULL, o)) return NAN;
    pendulum_exactly(times[which], exact);
    double e = hypot(eqnn_at(y[which], 0, 0) - exact[0], eqnn_at(y[which], 0, 1) - exact[1]);
    eqnn_reset(c);
    return e;
}

TEST(orders)
{
    eqnn_ctx *c = test_context();
    if (sizeof(eqnn_real) == 4) return; /* rounding hides them */
    for (int m = 1; m < 4; m++) { /* error at a fixed time: order 4, 2, 4 */
        eqnn_ode_opts o = method(m == 1   ? EQNN_RK4
                                 : m == 2 ? EQNN_MIDPOINT
                                          : EQNN_RK38, 0.05), p = o;
        p.step = 0.025;
        double order = log2(error_at(c, &o, 1, 2, 2) / error_at(c, &p, 1, 2, 2));
        test_note("order of method %d: %.2f", m, order);
        CHECK_NEAR(order, m == 2 ? 2 : 4, 0.1);
    }
    double h = 0.2; /* one step: errors of one order more; inside of it one order less */
    eqnn_ode_opts o = method(EQNN_DOPRI5, 9);
    double whole = log2(error_at(c, &o, h / 2, h, 2) / error_at(c, &o, h / 4, h / 2, 2));
    double dense = log2(error_at(c, &o, h * 0.4, h, 1) / error_at(c, &o, h * 0.2, h / 2, 1));
    test_note("order of a step of Dormand-Prince: %.2f, of its dense output %.2f", whole, dense);
    CHECK_NEAR(whole, 6, 0.05);
    CHECK_NEAR(dense, 5, 0.05);
}

TEST(methods_that_are_none)
{
    eqnn_ctx *c = test_context();
    const double times[2] = { 0, 1 };
    eqnn_ode_opts o = method((eqnn_ode_method)4, 0.1);
    eqnn_tensor *y[2];
    CHECK(!eqnn_ode(pendulum, eqnn_full(c, 1, 2, 1), times, 2, y, NULL, &o));
    CHECK_ERROR(c, "ode: there is no method 4");
}

/* Looser tolerances take less work: .atol where y is small, .solve within an implicit step. */
TEST(tolerances)
{
    eqnn_ctx *c = test_context();
    const double times[2] = { 0, 5 };
    eqnn_tensor *y[2];
    eqnn_ode_stats s[4];
    for (int k = 0; k < 4; k++) {
        eqnn_ode_opts o = method(k < 2 ? EQNN_DOPRI5 : EQNN_MIDPOINT, k < 2 ? 0 : 0.5);
        if (k < 2) o.rtol = 1e-6, o.atol = k ? 1 : 1e-9;
        o.solve = k == 3 ? 0.01 : 0;
        o.stats = &s[k];
        CHECK(eqnn_ode(pendulum, eqnn_full(c, 1, 2, 1e-3), times, 2, y, NULL, &o));
    }
    CHECK(s[1].steps < s[0].steps && s[2].steps == s[3].steps);
    CHECK(s[3].evaluations < s[2].evaluations);
}

TEST(exact_solutions)
{
    eqnn_ctx *c = test_context();
    double start[4] = { 0.5, -0.8, 0.25, 0.7 }, times[41];
    eqnn_tensor *y[41];
    for (int back = 0; back < 2; back++) {
        double worst = 0, tolerance = test_eps(1e-10, 1e-5);
        eqnn_ode_stats stats;
        eqnn_ode_opts o = method(EQNN_DOPRI5, 0);
        o.rtol = o.atol = tolerance;
        o.stats = &stats;
        for (int i = 0; i < 41; i++) times[i] = (back ? -0.05 : 0.05) * i;
        eqnn_tensor *y0 = eqnn_from_double(c, 2, 2, start);
        CHECK(eqnn_ode(quadratic, y0, times, 41, y, NULL, &o));
        for (int i = 0; i < 41; i++)
            for (int k = 0; k < 4; k++)
                worst = fmax(worst, fabs(eqnn_at(y[i], k / 2, k % 2) * (1 / start[k] -
                                                                        sin(times[i])) - 1));
        test_note("%s: error %.1e for tolerance %.0e; %d steps, %d rejected, %d evaluations",
                  back ? "back" : "forth", worst, tolerance, (int)stats.steps,
                  (int)stats.rejected, (int)stats.evaluations);
        CHECK(y[0] == y0 && worst < 20 * tolerance && stats.steps < 200);
        CHECK(stats.evaluations == 2 + 6 * (stats.steps + stats.rejected));
    }
}

/* Recorded or not: the same bits. Nothing is left behind but the results. */
TEST(unrecorded)
{
    eqnn_ctx *c = test_context();
    double times[4] = { 0, 0.3, 2, 5 };
    for (int m = 0; m < 3; m++) {
        eqnn_ode_opts o = method((eqnn_ode_method)m, m ? 0.1 : 0);
        eqnn_tensor *a[4], *b[4], *y0 = eqnn_scale(test_normal(c, 5, 4), 0.1);
        CHECK(eqnn_ode(symplectic, y0, times, 4, a, NULL, &o));
        size_t nodes = eqnn_memory_use(c).tape_nodes, bytes = eqnn_memory_use(c).step;
        eqnn_recording(c, 0);
        CHECK(eqnn_ode(symplectic, y0, times, 4, b, NULL, &o));
        eqnn_recording(c, 1);
        CHECK(eqnn_memory_use(c).tape_nodes == nodes && eqnn_memory_use(c).step < bytes + 4096);
        for (int i = 0; i < 4; i++)
            CHECK(a[i] && b[i] &&
                  !memcmp(eqnn_data(a[i]), eqnn_data(b[i]), 20 * sizeof(eqnn_real)));
        eqnn_reset(c);
    }
}

TEST(few_rows_and_times)
{
    eqnn_ctx *c = test_context();
    double times[4] = { 1, 1, 2, 2 };
    for (int m = 0; m < 3; m++)
        for (int adjoint = 0; adjoint < 2; adjoint++) {
            eqnn_ode_opts o = method((eqnn_ode_method)m, 0);
            o.adjoint = adjoint;
            eqnn_tensor *y[4], *none = eqnn_zeros(c, 0, 2), *one = eqnn_full(c, 1, 1, 0.5);
            CHECK(eqnn_ode(pendulum, none, times, 4, y, NULL, &o));
            CHECK(eqnn_rows(y[3]) == 0 && eqnn_cols(y[3]) == 2);
            CHECK(eqnn_ode(quadratic, one, times, 1, y, NULL, &o) && y[0] == one);
            CHECK(eqnn_ode(quadratic, one, times, 4, y, NULL, &o));
            CHECK(eqnn_value(y[1]) == 0.5 && eqnn_value(y[2]) == eqnn_value(y[3]));
            CHECK_NEAR(eqnn_value(y[3]), 1 / (2 + sin(1) - sin(2)), m == 2 ? 0.02 : 1e-3);
        }
}

/* ---- derivatives ---- */

static eqnn_ode_method derived;

/* Start and a parameter to two states, the last a sum of squares. */
static eqnn_tensor *solve_quadratic(eqnn_tensor *const *x, int n, void *user)
{
    double times[3] = { 0, 0.4, 0.8 };
    eqnn_ode_opts o = method(derived, 0.4);
    eqnn_tensor *y[3], *w = n > 1 ? x[1] : NULL;
    (void)user;
    if (!eqnn_ode(quadratic, x[0], times, 3, y, w ? (void *)&w : NULL, &o)) return NULL;
    return eqnn_add(y[1], eqnn_square(y[2]));
}

static eqnn_tensor *solve_hamilton(eqnn_tensor *const *x, int n, void *user)
{
    double times[3] = { 0, 0.3, 0.6 };
    eqnn_ode_opts o = method(derived, 0.3);
    eqnn_tensor *y[3];
    (void)n, (void)user;
    if (!eqnn_ode(symplectic, x[0], times, 3, y, NULL, &o)) return NULL;
    return eqnn_add(y[1], eqnn_square(y[2]));
}

TEST(derivatives)
{
    eqnn_ctx *c = test_context();
    for (int m = 0; m < 3; m++) {
        eqnn_tensor *x[2] = { test_uniform(c, 3, 2, 0.1, 0.6), test_uniform(c, 1, 2, 0.3, 0.8) };
        derived = (eqnn_ode_method)m;
        CHECK_DERIVATIVES_OF(solve_quadratic, x, 2, NULL, 1);
        CHECK_DERIVATIVES_OF(solve_quadratic, x, 2, NULL, 2);
        x[0] = eqnn_detach(eqnn_scale(test_normal(c, 2, 4), 0.3));
        CHECK_DERIVATIVES_OF(solve_hamilton, x, 1, NULL, 2);
    }
}

/* With steps that follow the error, and some rejected: y = 1/(1/y0 - sin t) has
   dy/dy0 = (y/y0)^2 and d2y/dy0^2 = 2 (y/y0)^2 (y - y0) / y0^2. */
TEST(derivatives_of_adaptive_steps)
{
    eqnn_ctx *c = test_context();
    double times[3] = { 0, 0.7, 1.4 };
    eqnn_ode_stats stats;
    eqnn_ode_opts o = method(EQNN_DOPRI5, 1.4);
    eqnn_tensor *y[3], *y0 = eqnn_full(c, 1, 1, 0.8);
    o.rtol = o.atol = test_eps(1e-10, 1e-5);
    o.stats = &stats;
    CHECK(eqnn_ode(quadratic, y0, times, 3, y, NULL, &o) && stats.rejected > 0);
    for (int i = 1; i < 3; i++) {
        double e = 1 / (1 / 0.8 - sin(times[i])), r = e / 0.8;
        eqnn_tensor *d = eqnn_grad(y[i], y0), *d2 = eqnn_grad(d, y0);
        CHECK_NEAR(eqnn_value(d), r * r, test_eps(1e-8, 2e-3));
        CHECK_NEAR(eqnn_value(d2), 2 * r * r * (e - 0.8) / 0.64, test_eps(1e-7, 2e-2));
    }
}

/* ---- the adjoint equation ---- */

static eqnn_tensor *network_loss(eqnn_tensor *y0, const eqnn_ode_opts *o)
{
    double times[4] = { 0, 0.5, 1.1, 2 };
    eqnn_tensor *y[4], *sum;
    if (!eqnn_ode(network, y0, times, 4, y, NULL, o)) return NULL;
    sum = eqnn_add(eqnn_sum(eqnn_square(y[1])), eqnn_sum(eqnn_sin(y[2])));
    return eqnn_add(sum, eqnn_sum(eqnn_mul(y[3], y[1])));
}

static eqnn_tensor *solved_inside(eqnn_tensor *const *x, int n, void *user)
{
    (void)n;
    return network_loss(x[0], (const eqnn_ode_opts *)user);
}

static void compare_adjoint(eqnn_ode_method m, double step)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *y0 = eqnn_keep(test_normal(c, 6, 3)), *gradient[3][5];
    eqnn_ode_opts o = method(m, step);
    o.rtol = o.atol = test_eps(1e-9, 1e-6);
    double tolerance = test_eps(m == EQNN_DOPRI5 ? 1e-6 : 1e-5, 2e-3);
    for (int k = 0; k < 3; k++) { /* by the tape; by the adjoint; the same in a checkpoint */
        o.adjoint = k > 0;
        eqnn_tensor *loss = k < 2 ? network_loss(y0, &o)
                                  : eqnn_checkpoint(solved_inside, &y0, 1, &o, sizeof o);
        CHECK(k != 1 || eqnn_memory_use(c).tape_nodes < 20);
        gradient[k][4] = eqnn_keep(eqnn_grad(loss, y0));
        CHECK(eqnn_backward(loss));
        for (int i = 0; i < 4; i++)
            gradient[k][i] = eqnn_keep(eqnn_gradient(eqnn_parameter_at(c, i)));
        eqnn_zero_gradients(c);
        eqnn_reset(c);
        for (int i = 0; i < 5; i++) CHECK_SAME(gradient[k][i], gradient[0][i], tolerance);
        for (int i = 0; k && i < 5; i++)
            test_note("method %d, adjoint %d, gradient %d: %.1e", (int)m, k, i,
                      test_difference(gradient[k][i], gradient[0][i]));
    }
}

TEST(adjoint)
{
    compare_adjoint(EQNN_DOPRI5, 0);
    compare_adjoint(EQNN_RK4, 0.02);
    compare_adjoint(EQNN_MIDPOINT, 0.002);
}

/* First and second derivatives of a roll-out whose field is computed again, beside the tape's. */
TEST(checkpoint)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *y0 = eqnn_keep(test_normal(c, 6, 3)), *d[2][2];
    size_t nodes[2];
    eqnn_ode_opts o = method(EQNN_RK38, 0.1);
    for (int k = 0; k < 2; k++) {
        o.checkpoint = k;
        eqnn_tensor *loss = network_loss(y0, &o), *g;
        nodes[k] = eqnn_memory_use(c).tape_nodes;
        g = eqnn_grad(loss, y0);
        d[k][0] = eqnn_keep(g);
        d[k][1] = eqnn_keep(eqnn_grad(eqnn_sum(eqnn_square(g)), y0));
        eqnn_reset(c);
    }
    CHECK(nodes[1] < nodes[0]);
    for (int i = 0; i < 2; i++) CHECK_SAME(d[1][i], d[0][i], test_eps(1e-12, 1e-4));
}

/* Gradients by eqnn_grads of parameters; then a second derivative is asked for. */
/* y' = -dE/dy with E = sum of cos(y w), written as a network's forces are. */
static eqnn_tensor *downhill(eqnn_tensor *y, double t, void *user)
{
    eqnn_tensor *w = eqnn_param(eqnn_context(y), "w", 4, 4, NULL);
    (void)t, (void)user;
    return eqnn_neg(eqnn_grad(eqnn_sum(eqnn_cos(eqnn_matmul(y, w))), y));
}

/* Fields that differentiate, under every method, by the tape, recomputed, by the adjoint equation,
   and where nothing is recorded. */
TEST(fields_that_are_slopes)
{
    static const eqnn_ode_method method[4] = { EQNN_DOPRI5, EQNN_RK4, EQNN_RK38, EQNN_MIDPOINT };
    static const double times[2] = { 0, 0.7 };
    for (int m = 0; m < 4; m++) {
        eqnn_ctx *c = test_context();
        eqnn_tensor *y0 = eqnn_keep(eqnn_normal(c, "y0", 3, 4)), *end[4], *dw[3];
        for (int k = 0; k < 4; k++) {
            eqnn_tensor *y[2];
            eqnn_ode_opts o = { .method = method[m], .rtol = test_eps(1e-9, 1e-5), .atol = 1e-9,
                                .step = m ? 0.01 : 0, .checkpoint = k == 1, .adjoint = k == 2 };
            eqnn_recording(c, k < 3);
            if (!CHECK(eqnn_ode(downhill, y0, times, 2, y, NULL, &o))) return;
            end[k] = y[1];
            CHECK_SAME(end[k], end[0], test_eps(1e-14, 1e-6));
            if (k == 3) break;
            dw[k] = eqnn_grad(eqnn_sum(eqnn_square(y[1])), eqnn_parameter(c, "w"));
            CHECK_SAME(dw[k], dw[0], k < 2 ? test_eps(1e-12, 1e-4) : test_eps(1e-7, 2e-3));
        }
        eqnn_recording(c, 1);
        eqnn_ode_opts back = { .step = -1 };
        CHECK(!eqnn_ode(downhill, y0, times, 2, end, NULL, &back));
        CHECK_ERROR(c, "ode: a step of -1; it is a length");
    }
}

TEST(adjoint_is_first_order)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *y0 = test_normal(c, 2, 3), *d[2][2], *w;
    eqnn_ode_opts o = method(EQNN_DOPRI5, 0);
    o.rtol = o.atol = test_eps(1e-9, 1e-6);
    for (o.adjoint = 0; o.adjoint < 2; o.adjoint++) {
        eqnn_tensor *loss = network_loss(y0, &o), *x[2];
        w = eqnn_parameter(c, "net.0.weight");
        x[0] = w, x[1] = y0;
        CHECK(eqnn_grads(loss, x, 2, d[o.adjoint]));
    }
    CHECK_SAME(d[1][0], d[0][0], test_eps(1e-6, 2e-3));
    CHECK_SAME(d[1][1], d[0][1], test_eps(1e-6, 2e-3));
    CHECK(eqnn_grad(eqnn_sum(eqnn_square(d[0][1])), w) != NULL);
    CHECK(!eqnn_grad(eqnn_sum(eqnn_square(d[1][1])), w));
    CHECK_ERROR(c, "first derivatives only");
}

/* ---- symplecticity ---- */

static double energy(eqnn_tensor *y)
{
    return eqnn_value(eqnn_sum(hamiltonian(y)));
}

/* The largest energy error within 500 steps of 0.05, twenty times on end. */
static void energy_errors(eqnn_ctx *c, eqnn_ode_method m, double error[20])
{
    double start[4] = { 0.3, -0.2, 0.1, 0.4 }, times[501];
    static eqnn_tensor *y[501];
    eqnn_ode_opts o = method(m, 0);
    eqnn_tensor *now = eqnn_keep(eqnn_from_double(c, 1, 4, start));
    double first = energy(now);
    eqnn_recording(c, 0);
    for (int k = 0; k < 20; k++) {
        error[k] = NAN;
        for (int i = 0; i <= 500; i++) times[i] = 0.05 * (500 * k + i);
        if (!eqnn_ode(symplectic, now, times, 501, y, NULL, &o)) break;
        for (int i = 0; i <= 500; i++) error[k] = fmax(error[k], fabs(energy(y[i]) - first));
        now = eqnn_keep(y[500]);
        eqnn_reset(c);
    }
    eqnn_recording(c, 1);
}

TEST(energy_of_ten_thousand_steps)
{
    eqnn_ctx *c = test_context();
    double midpoint[20], rk4[20];
    energy_errors(c, EQNN_MIDPOINT, midpoint);
    energy_errors(c, EQNN_RK4, rk4);
    test_note("energy error at the beginning and end: midpoint %.2e %.2e, rk4 %.2e %.2e",
              midpoint[0], midpoint[19], rk4[0], rk4[19]);
    for (int k = 0; k < 20; k++) CHECK(midpoint[k] < 1.3 * midpoint[0] && midpoint[k] < 1e-3);
    if (sizeof(eqnn_real) == 8) CHECK(rk4[19] > 10 * rk4[0]); /* which drifts */
}

/* The largest entry of J^T Omega J - Omega, J = dy(1)/dy(0), Omega = (0 1; -1 0). */
static double asymmetry(eqnn_ctx *c, eqnn_ode_method m)
{
    double start[4] = { 0.4, -0.3, 0.2, 0.5 }, times[2] = { 0, 1 }, J[4][4], worst = 0;
    eqnn_ode_opts o = method(m, 0.125);
    eqnn_tensor *y[2], *y0 = eqnn_from_double(c, 1, 4, start);
    if (!eqnn_ode(symplectic, y0, times, 2, y, NULL, &o)) return NAN;
    for (int i = 0; i < 4; i++) {
        eqnn_tensor *d = eqnn_grad(eqnn_slice(y[1], i, 1), y0);
        for (int k = 0; k < 4; k++) J[i][k] = eqnn_at(d, 0, k);
    }
    for (int a = 0; a < 4; a++)
        for (int b = 0; b < 4; b++) {
            double sum = (a == b + 2) - (b == a + 2);
            for (int i = 0; i < 2; i++) sum += J[i][a] * J[i + 2][b] - J[i + 2][a] * J[i][b];
            worst = fmax(worst, fabs(sum));
        }
    return worst;
}

TEST(jacobian_is_symplectic)
{
    eqnn_ctx *c = test_context();
    double midpoint = asymmetry(c, EQNN_MIDPOINT), rk4 = asymmetry(c, EQNN_RK4);
    test_note("J^T Omega J - Omega: midpoint %.1e, rk4 %.1e", midpoint, rk4);
    CHECK(midpoint < test_eps(1e-12, 1e-5));
    if (sizeof(eqnn_real) == 8) CHECK(rk4 > 1e-7);
}

/* ---- symmetry, threads, errors ---- */

/* Each row is drawn to the origin by a force that grows with the distance. */
static eqnn_tensor *drawn(eqnn_tensor *y, double t, void *user)
{
    (void)t, (void)user;
    return eqnn_neg(eqnn_mul(y, eqnn_norm(y)));
}

static eqnn_tensor *solve_drawn(eqnn_tensor *const *x, int n, void *user)
{
    double times[3] = { 0, 1, 3 };
    eqnn_tensor *y[3];
    (void)n;
    return eqnn_ode(drawn, x[0], times, 3, y, NULL, (const eqnn_ode_opts *)user) ? y[2] : NULL;
}

/* Steps do not depend on directions: the error is rounding, far below the tolerance of 1e-2. */
TEST(turning_the_world)
{
    eqnn_ctx *c = test_context();
    eqnn_ode_opts o = method(EQNN_DOPRI5, 0);
    eqnn_tensor *x = test_features(c, 5, "1x1o");
    o.rtol = 1e-2;
    CHECK_SYMMETRY(solve_drawn, &x, 1, &o);
}

TEST(same_bits_for_any_threads)
{
    eqnn_real end[2][300 * 12];
    for (int k = 0; k < 2; k++) {
        eqnn_opts a = test_opts();
        double times[2] = { 0, 1 };
        a.threads = k + 1;
        eqnn_ctx *c = eqnn_make(&a);
        eqnn_tensor *y[2], *d, *y0 = eqnn_reshape(eqnn_normal(c, "y", 1200, 3), 1200, 3);
        eqnn_ode_opts o = method(EQNN_DOPRI5, 0);
        o.adjoint = k;
        CHECK(eqnn_ode(network, y0, times, 2, y, NULL, &o));
        CHECK(eqnn_read(y[1], end[k]));
        d = eqnn_grad(eqnn_sum(eqnn_square(y[1])), y0);
        CHECK(d != NULL);
        CHECK(!eqnn_error(c));
        eqnn_free(c);
    }
    CHECK(!memcmp(end[0], end[1], sizeof end[0]));
}

static eqnn_tensor *stiff(eqnn_tensor *y, double t, void *user)
{
    (void)user;
    return eqnn_scale(eqnn_shift(y, -cos(t)), -1e5);
}
static eqnn_tensor *no_field(eqnn_tensor *y, double t, void *user)
{
    (void)y, (void)t, (void)user;
    return NULL;
}
static eqnn_tensor *narrow(eqnn_tensor *y, double t, void *user)
{
    (void)t, (void)user;
    return eqnn_slice(y, 0, 1);
}
static eqnn_tensor *unlabelled(eqnn_tensor *y, double t, void *user)
{
    (void)t, (void)user;
    return eqnn_as(y, NULL);
}
static eqnn_tensor *blows_up(eqnn_tensor *y, double t, void *user)
{
    (void)t, (void)user;
    return eqnn_log(y);
}

static int fails(eqnn_ctx *c, eqnn_field f, eqnn_tensor *y0, const double *times, int n,
                 const eqnn_ode_opts *o, const char *why)
{
    eqnn_tensor *y[4] = { y0, y0, y0, y0 };
    return !eqnn_ode(f, y0, times, n, y, NULL, o) && CHECK_ERROR(c, why) &&
           (n < 2 || (!y[0] && !y[1]));
}

TEST(sentences)
{
    eqnn_ctx *c = test_context();
    double times[3] = { 0, 1, 2 }, bent[3] = { 0, 1, 0.5 }, back[4] = { 0, 1, 1, 0.5 };
    double nan[3] = { 0, NAN, 1 };
    eqnn_tensor *y0 = test_normal(c, 2, 2), *turns = test_features(c, 2, "1x1o");
    eqnn_ode_opts o = method(EQNN_DOPRI5, 0), mid = method(EQNN_MIDPOINT, 0);
    o.max_steps = 200;
    CHECK(fails(c, stiff, y0, times, 3, &o, "200 steps from t = 0"));
    o.method = EQNN_RK4;
    o.step = 1e-3;
    CHECK(fails(c, pendulum, y0, times, 3, &o, "raise .max_steps"));
    CHECK(fails(c, blows_up, eqnn_full(c, 1, 1, -1), times, 3, NULL, "the field is not finite"));
    CHECK(fails(c, stiff, y0, times, 3, &mid, "does not converge with steps of 1"));
    CHECK(fails(c, no_field, y0, times, 3, NULL, "the field returned NULL at t = 0"));
    CHECK(fails(c, narrow, y0, times, 3, NULL, "the field gave [2,1], y is [2,2]"));
    CHECK(fails(c, unlabelled, turns, times, 3, NULL, "do not turn alike"));
    CHECK(fails(c, pendulum, y0, bent, 3, NULL, "number 2 is 0.5"));
    CHECK(fails(c, pendulum, y0, back, 4, NULL, "number 3 is 0.5")); /* also behind a pause */
    CHECK(fails(c, pendulum, y0, nan, 3, NULL, "number 1 is nan"));
    CHECK(fails(c, pendulum, y0, times, 0, NULL, "one time or more"));
    CHECK(fails(c, NULL, y0, times, 3, NULL, "NULL"));
    CHECK(!eqnn_ode(pendulum, NULL, times, 3, NULL, NULL, NULL));
    mid.adjoint = 1;
    CHECK(fails(c, stiff, y0, times, 3, &mid, "does not converge"));
    CHECK(eqnn_recording(c, 1)); /* as it was */
}

TEST_MAIN
