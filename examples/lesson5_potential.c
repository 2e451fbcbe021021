/* lesson5_potential.c - learn an energy, get its forces, let atoms move by them

   cc -O2 -I. examples/lesson5_potential.c -lm -o lesson5 && ./lesson5

   YOU WILL SEE   how wrong a network's forces are while it learns from a simulation of five atoms,
                  bound by Morse's potential; then a simulation in which the forces are the
                  network's. The last lines compare how far the total energy strays in it and in
                  one with the true forces.
   IT TEACHES     a network gives one invariant number, the energy E. The forces are -dE/dx by
                  eqnn_grad: nobody has to make them equivariant, they are; and since they are the
                  slope of something, a simulation keeps kinetic plus potential energy, whatever
                  the network has learned. The gradient stands in the loss like any other tensor. */
#define EQNN_IMPLEMENTATION
#include "eqnn.h"
#include <math.h>

enum { ATOMS = 5, SIZE = 3 * ATOMS, BATCH = 32, TRAINING = 1000 };
static const double radius = 3, dt = 0.02;

/* --- 1. the truth, and how atoms move --- */

/* The energy of a configuration x; force gets minus its gradient. */
typedef double (*field)(const double *x, double *force, void *user);

/* Morse (1929): each pair has the energy (1 - exp(-2 (r - 1)))^2, which is 0 at r = 1. */
static double morse(const double *x, double *force, void *user)
{
    double E = 0;
    (void)user;
    for (int k = 0; k < SIZE; k++) force[k] = 0;
    for (int i = 0; i < ATOMS; i++)
        for (int j = 0; j < i; j++) {
            double d[3], r = 0;
            for (int k = 0; k < 3; k++) d[k] = x[3 * i + k] - x[3 * j + k], r += d[k] * d[k];
            r = sqrt(r);
            double q = exp(-2 * (r - 1)), slope = 4 * (1 - q) * q;
            for (int k = 0; k < 3; k++) {
                force[3 * i + k] -= slope * d[k] / r;
                force[3 * j + k] += slope * d[k] / r;
            }
            E += (1 - q) * (1 - q);
        }
    return E;
}

/* Velocity Verlet for masses of 1; returns the largest change of the total energy. */
static double move(field f, void *user, double *x, double *v, int steps)
{
    double force[SIZE], start = f(x, force, user), worst = 0;
    for (int k = 0; k < SIZE; k++) start += 0.5 * v[k] * v[k];
    for (int step = 0; step < steps; step++) {
        for (int k = 0; k < SIZE; k++) x[k] += dt * (v[k] += 0.5 * dt * force[k]);
        double E = f(x, force, user);
        for (int k = 0; k < SIZE; k++) v[k] += 0.5 * dt * force[k], E += 0.5 * v[k] * v[k];
        worst = fmax(worst, fabs(E - start));
    }
    return worst;
}

/* --- 2. the network --- */

/* Each atom sees radial functions of the distances to the others, fading out at the radius, summed;
   a small network makes its energy of that. Sums and distances do not turn: E is invariant. */
static eqnn_tensor *energy(eqnn_tensor *pos, const eqnn_graph *g)
{
    eqnn_tensor *length = eqnn_norm(eqnn_edge_vectors(pos, g));
    eqnn_tensor *fade = eqnn_map(eqnn_scale(length, 1 / radius), EQNN_POLY_CUTOFF, 4, 0);
    eqnn_tensor *b = eqnn_mul(eqnn_radial_basis(length, 24, radius, NULL), fade);
    eqnn_tensor *seen = eqnn_scatter(eqnn_fc(b, "radial", "32", NULL), g);
    return eqnn_pool_sum(eqnn_mlp(seen, "energy", "32,1", NULL), g); /* [configurations,1] */
}

static eqnn_tensor *forces(eqnn_tensor *E, eqnn_tensor *pos)
{
    return eqnn_neg(eqnn_grad(eqnn_sum(E), pos));
}

/* n configurations as positions and a graph in which each is an example of its own. */
static eqnn_tensor *positions(eqnn_ctx *c, int n, const double *x, const eqnn_graph **g)
{
    int example[BATCH * ATOMS];
    for (int i = 0; i < n * ATOMS; i++) example[i] = i / ATOMS;
    eqnn_tensor *pos = eqnn_from_double(c, n * ATOMS, 3, x);
    *g = eqnn_radius_graph(pos, radius, &(eqnn_graph_opts){ .example = example });
    return pos;
}

/* The network in the place of morse(). */
static double learned(const double *x, double *force, void *user)
{
    const eqnn_graph *g;
    eqnn_tensor *pos = positions((eqnn_ctx *)user, 1, x, &g), *E = energy(pos, g);
    eqnn_tensor *F = forces(E, pos);
    for (int k = 0; k < SIZE; k++) force[k] = eqnn_at(F, k / 3, k % 3);
    double value = eqnn_value(E);
    eqnn_reset((eqnn_ctx *)user);
    return value;
}

/* --- 3. training on a simulation that goes on: no frame is seen twice --- */

/* Returns the relative error of the forces, on new frames, at the end. */
static double train(eqnn_ctx *c, double *x, double *v)
{
    static double at[BATCH][SIZE], F_true[BATCH][SIZE], E_true[BATCH];
    eqnn_adam *adam = eqnn_adam_make(c, NULL);
    eqnn_schedule rate = { .kind = EQNN_COSINE, .rate = 1e-2, .total = TRAINING };
    double error = NAN;
    for (int step = 0; step <= TRAINING && !eqnn_error(c); step++) {
        for (int b = 0; b < BATCH; b++) {
            move(morse, NULL, x, v, 10);
            E_true[b] = morse(x, F_true[b], NULL);
            for (int k = 0; k < SIZE; k++) at[b][k] = x[k];
        }
        const eqnn_graph *g;
        eqnn_tensor *pos = positions(c, BATCH, at[0], &g), *E = energy(pos, g);
        eqnn_tensor *F_want = eqnn_from_double(c, BATCH * ATOMS, 3, F_true[0]);
        eqnn_tensor *E_loss = eqnn_mse(E, eqnn_from_double(c, BATCH, 1, E_true));
        eqnn_tensor *F_loss = eqnn_mse(forces(E, pos), F_want);
        error = sqrt(eqnn_value(F_loss) / eqnn_value(eqnn_mean(eqnn_square(F_want))));
        if (step % 200 == 0) printf("step %4d   forces are %5.1f %% wrong\n", step, 100 * error);
        eqnn_backward(eqnn_add(E_loss, eqnn_scale(F_loss, 10))); /* through the gradient in F */
        eqnn_adam_rate(adam, eqnn_schedule_rate(&rate, step));
        eqnn_adam_step(adam);
        eqnn_reset(c);
    }
    return error;
}

int main(void)
{
    double v[SIZE], y[SIZE], w[SIZE], motion = 0, x[SIZE] = { .5, 0, 0, -.5, 0, 0, 0, .87, 0,
                                                              0, .29, .82, 0, .29, -.82 };
    eqnn_ctx *c = eqnn_make(NULL);
    eqnn_random(c, "velocities", 1, SIZE, v);
    for (int k = 0; k < SIZE; k++) v[k] *= 0.35;
    double error = train(c, x, v);

    for (int k = 0; k < SIZE; k++) y[k] = x[k], w[k] = v[k], motion += 0.5 * v[k] * v[k];
    double truth = move(morse, NULL, x, v, 5000) / motion;
    double drift = move(learned, c, y, w, 5000) / motion;
    printf("\n5000 steps on; the largest change of the total energy, in %% of the kinetic energy:\n"
           "    with the true forces    %.2f\n    with those learned      %.2f\n", 100 * truth,
           100 * drift);
    if (eqnn_error(c)) printf("error: %s\n", eqnn_error(c));
    int good = !eqnn_error(c) && error < 0.1 && drift < 0.02;
    eqnn_free(c);
    return good ? 0 : 1;
}
