/* lesson6_hamiltonian.c - a network learns the energy of something that swings, and its motion

   cc -O2 -I. examples/lesson6_hamiltonian.c -lm -o lesson6 && ./lesson6

   YOU WILL SEE   a mass on a spring that swings in a plane, of which nobody tells the equations: we
                  see where it is, q, and its momentum, p, at five moments 0.1 s apart, 256 times.
                  Two networks learn from that; then, how wrong they are in the time that they were
                  trained on, and by how much the energy has changed after 30 s.
   IT TEACHES     one network is dz/dt itself, z = (q, p); the other an energy H, by Hamilton's
                  dz/dt = (dH/dp, -dH/dq). Then dH/dt = dH/dq dq/dt + dH/dp dp/dt = 0, whatever was
                  learned (Greydanus, Dzamba, Yosinski 2019, arXiv:1906.01563). eqnn_ode follows any
                  field and is differentiated like any function: the loss is where the motion leads,
                  the field is a gradient, its training a second derivative. */
#define EQNN_IMPLEMENTATION
#include "eqnn.h"
#include <math.h>

enum { PIECES = 256, MOMENTS = 5, BATCH = 32, TRAINING = 1500, FAR = 301, TEST = 50 };
static const double dt = 0.1;

/* --- 1. the truth --- */

/* H = |p|^2 / 2 + 2 (|q| - 1)^2 + q_y: kinetic energy, spring, weight; z = (q_x, q_y, p_x, p_y). */
static double true_energy(const double *z)
{
    double stretch = hypot(z[0], z[1]) - 1;
    return (z[2] * z[2] + z[3] * z[3]) / 2 + 2 * stretch * stretch + z[1];
}

static void true_field(const double *z, double *dz)
{
    double length = hypot(z[0], z[1]), pull = 4 * (1 - length) / length;
    dz[0] = z[2], dz[1] = z[3];
    dz[2] = pull * z[0], dz[3] = pull * z[1] - 1;
}

/* From one moment to the next, in 100 steps of the midpoint rule. */
static void true_step(double *z)
{
    for (int step = 0; step < 100; step++) {
        double half[4], d[4];
        true_field(z, d);
        for (int k = 0; k < 4; k++) half[k] = z[k] + dt / 200 * d[k];
        true_field(half, d);
        for (int k = 0; k < 4; k++) z[k] += dt / 100 * d[k];
    }
}

/* Moments [moments][n][4] of n motions that start near the place of rest. */
static void observe(eqnn_ctx *c, const char *name, int n, int moments, double *z)
{
    eqnn_random(c, name, 1, (size_t)(4 * n), z);
    for (int i = 0; i < 4 * n; i++) z[i] = 0.3 * z[i] - (i % 4 == 1 ? 1.25 : 0);
    for (int i = 4 * n; i < 4 * n * moments; i += 4) {
        for (int k = 0; k < 4; k++) z[i + k] = z[i + k - 4 * n];
        true_step(z + i);
    }
}

/* --- 2. two networks --- */

static eqnn_tensor *plain(eqnn_tensor *z, double t, void *user)
{
    (void)t, (void)user;
    return eqnn_mlp(z, "field", "64,64,4", NULL);
}

/* Each row's H depends on that row only, so the gradient of their sum has all the slopes. */
static eqnn_tensor *hamiltonian(eqnn_tensor *z, double t, void *user)
{
    (void)t, (void)user;
    eqnn_tensor *H = eqnn_mlp(z, "energy", "64,64,1", NULL);
    eqnn_tensor *dH = eqnn_grad(eqnn_sum(H), z);
    return eqnn_concat(eqnn_slice(dH, 2, 2), eqnn_neg(eqnn_slice(dH, 0, 2)));
}

/* --- 3. training on what is seen --- */

/* Mean square distance of the solution from n motions z [moments][all][4], from number first on. */
static eqnn_tensor *distance(eqnn_ctx *c, eqnn_field f, const double *z, int all, int first, int n)
{
    double times[MOMENTS] = { 0, dt, 2 * dt, 3 * dt, 4 * dt };
    eqnn_tensor *y[MOMENTS], *sum = NULL;
    eqnn_ode_opts rule = { .method = EQNN_RK4 };
    eqnn_ode(f, eqnn_from_double(c, n, 4, z + 4 * first), times, MOMENTS, y, NULL, &rule);
    for (int k = 1; k < MOMENTS; k++) {
        eqnn_tensor *seen = eqnn_from_double(c, n, 4, z + 4 * (k * all + first));
        sum = k > 1 ? eqnn_add(sum, eqnn_mse(y[k], seen)) : eqnn_mse(y[k], seen);
    }
    return eqnn_scale(sum, 1.0 / (MOMENTS - 1));
}

static void train(eqnn_ctx *c, eqnn_field f, const double *z)
{
    eqnn_adam *adam = eqnn_adam_make(c, NULL);
    eqnn_schedule rate = { .kind = EQNN_COSINE, .rate = 1e-2, .total = TRAINING };
    for (int step = 0; step < TRAINING && !eqnn_error(c); step++) {
        eqnn_backward(distance(c, f, z, PIECES, step % (PIECES / BATCH) * BATCH, BATCH));
        eqnn_adam_rate(adam, eqnn_schedule_rate(&rate, step));
        eqnn_adam_step(adam);
        eqnn_reset(c);
    }
}

/* |H(t) - H(0)| / (H(0) - H at rest) of the true H at the end of long roll-outs: the mean, in which
   motions that went astray altogether count 1. */
static double drift(eqnn_ctx *c, eqnn_field f, double *z)
{
    double times[2] = { 0, dt }, rest[4] = { 0, -1.25, 0, 0 }, start[TEST], mean = 0;
    eqnn_ode_opts rule = { .method = EQNN_RK4, .step = dt / 4 };
    eqnn_tensor *y[2];
    for (int i = 0; i < TEST; i++) start[i] = true_energy(z + 4 * i);
    for (int k = 1; k < FAR; k++) {
        eqnn_ode(f, eqnn_from_double(c, TEST, 4, z), times, 2, y, NULL, &rule);
        for (int i = 0; i < 4 * TEST; i++) z[i] = eqnn_at(y[1], i / 4, i % 4);
        eqnn_reset(c);
    }
    for (int i = 0; i < TEST; i++) {
        double change = fabs(true_energy(z + 4 * i) - start[i]) / (start[i] - true_energy(rest));
        mean += (change < 1 ? change : 1) / TEST;
    }
    return mean;
}

int main(void)
{
    static double seen[PIECES * MOMENTS * 4], fresh[TEST * MOMENTS * 4];
    static const char *const name[2] = { "a vector field", "an energy" };
    eqnn_field field[2] = { plain, hamiltonian };
    double error[2], change[2];
    for (int k = 0; k < 2; k++) {
        eqnn_ctx *c = eqnn_make(NULL);
        observe(c, "to learn from", PIECES, MOMENTS, seen);
        observe(c, "to be tested on", TEST, MOMENTS, fresh);
        train(c, field[k], seen);
        error[k] = sqrt(eqnn_value(distance(c, field[k], fresh, TEST, 0, TEST)));
        change[k] = drift(c, field[k], fresh);
        printf("%-15s %zu weights   wrong by %.4f in 0.4 s   energy changed by %4.1f %% in 30 s\n",
               name[k], eqnn_parameter_size(c), error[k], 100 * change[k]);
        if (eqnn_error(c)) printf("error: %s\n", eqnn_error(c));
        eqnn_free(c);
    }
    printf("\nThe energy of the learned Hamiltonian's motion drifts %.0f times less.\n",
           change[0] / change[1]);
    return change[1] < 0.1 && change[1] < change[0] / 2 ? 0 : 1;
}
