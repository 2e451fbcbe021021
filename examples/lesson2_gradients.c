/* lesson2_gradients.c - gradients are tensors, so they can be differentiated and put into a loss

   cc -O2 -I. examples/lesson2_gradients.c -lm -o lesson2 && ./lesson2

   YOU WILL SEE   sin and its first four derivatives at one point beside the exact numbers; then
                  a network that learns the shape of a valley by being shown only the force in
                  it. The last line compares the energy it found with the true one, which it was
                  never told.
   IT TEACHES     eqnn_grad gives dy/dx as a tensor like any other, to any order; weights come
                  into being at their first use; a training step is loss, backward, optimizer
                  step, reset. */
#define EQNN_IMPLEMENTATION
#include "eqnn.h"
#include <math.h>

/* --- 1. derivatives of derivatives --- */

static void derivatives(eqnn_ctx *c)
{
    double at = 0.7, exact[5] = { sin(at), cos(at), -sin(at), -cos(at), sin(at) };
    eqnn_tensor *x = eqnn_full(c, 1, 1, at), *y = eqnn_sin(x);
    printf("order   by eqnn_grad         exact\n");
    for (int order = 0; order < 5; order++) {
        printf("%5d   %-18.10g   %.10g\n", order, eqnn_value(y), exact[order]);
        y = eqnn_grad(y, x);
    }
}

/* --- 2. an energy from forces --- */

/* The valley: two minima at -1 and 1 and a hill between them. The force is minus its slope. */
static double true_energy(double x) { return (x * x - 1) * (x * x - 1); }
static double true_force(double x) { return -4 * x * (x * x - 1); }

/* The model: E(x) by a small network. eqnn_mlp makes its weights when it is first called. */
static eqnn_tensor *energy(eqnn_tensor *x)
{
    return eqnn_mlp(x, "energy", "32,32,1", NULL);
}

/* F = -dE/dx. Each row's energy depends on its own x only, so the gradient of the sum holds them
   all. */
static eqnn_tensor *force(eqnn_tensor *x)
{
    return eqnn_neg(eqnn_grad(eqnn_sum(energy(x)), x));
}

/* Points spread over the valley, and the force there. */
enum { SAMPLES = 64 };
static void samples(double x[SAMPLES], double f[SAMPLES])
{
    for (int i = 0; i < SAMPLES; i++) {
        x[i] = -1.5 + 3.0 * i / (SAMPLES - 1);
        f[i] = true_force(x[i]);
    }
}

static void train(eqnn_ctx *c, int steps)
{
    double x[SAMPLES], f[SAMPLES];
    samples(x, f);
    eqnn_adam *adam = eqnn_adam_make(c, &(eqnn_adam_opts){ .rate = 5e-3 });
    for (int step = 0; step <= steps && !eqnn_error(c); step++) {
        eqnn_tensor *in = eqnn_from_double(c, SAMPLES, 1, x);
        eqnn_tensor *loss = eqnn_mse(force(in), eqnn_from_double(c, SAMPLES, 1, f));
        if (step % 200 == 0) printf("step %4d   loss on forces %.5f\n", step, eqnn_value(loss));
        /* Adds d loss / d weight to every weight's gradient: through a gradient. */
        eqnn_backward(loss);
        eqnn_adam_step(adam);
        eqnn_reset(c);       /* the step's tensors are gone; the weights stay */
    }
}

/* Energies are defined up to a constant: compare after taking both means away. */
static double energy_error(eqnn_ctx *c)
{
    double x[SAMPLES], f[SAMPLES], mean = 0, error = 0, spread = 0, true_mean = 0;
    samples(x, f);
    eqnn_tensor *E = energy(eqnn_from_double(c, SAMPLES, 1, x));
    for (int i = 0; i < SAMPLES; i++) {
        mean += eqnn_at(E, i, 0) / SAMPLES;
        true_mean += true_energy(x[i]) / SAMPLES;
    }
    for (int i = 0; i < SAMPLES; i++) {
        double t = true_energy(x[i]) - true_mean, e = eqnn_at(E, i, 0) - mean;
        error += (e - t) * (e - t);
        spread += t * t;
    }
    return sqrt(error / spread);
}

int main(void)
{
    eqnn_ctx *c = eqnn_make(NULL);
    derivatives(c);

    printf("\na network learns E(x) = (x^2 - 1)^2 from its forces alone\n");
    double before = energy_error(c);
    train(c, 1000);
    double after = energy_error(c);
    printf("\nerror of the energy, which was never shown: %.1f %% before, %.2f %% after training\n",
           100 * before, 100 * after);

    if (eqnn_error(c)) printf("error: %s\n", eqnn_error(c));
    int good = !eqnn_error(c) && after < 0.05;
    eqnn_free(c);
    return good ? 0 : 1;
}
