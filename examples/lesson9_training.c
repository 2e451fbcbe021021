/* lesson9_training.c - training at scale: batches, threads, checkpoints, and use elsewhere

   cc -O2 -fopenmp -I. examples/lesson9_training.c -lm -o lesson9 && ./lesson9

   YOU WILL SEE   a network learn the energies of clusters of atoms three times: on one thread, on
                  two, and in a run that is stopped in its middle and resumed; then the weights are
                  loaded where nothing was ever trained. Four times the same error on clusters
                  that it never saw, to the last bit.
   IT TEACHES     many examples are one graph: atoms one after the other, and a list that says whose
                  they are. A batch is cut into parts; each has a worker with a tape of its own and
                  maybe a thread of its own; their gradients are added in the order of the parts,
                  whoever is ready first. An eqnn_run knows which examples come next, when to look
                  at others, which weights were best, and writes a file from which to go on.
                  (Where others use the machine: OMP_WAIT_POLICY=passive ./lesson9) */
#define EQNN_IMPLEMENTATION
#include "eqnn_data.h"
#include <math.h>
#include <string.h>

enum { ATOMS = 6, TRAIN = 512, VALID = 128, ALL = TRAIN + VALID, BATCH = 32, PARTS = 4,
       EPOCHS = 12, MIDDLE = 5, RADIUS = 3 };
static const char file[] = "lesson9.safetensors", best[] = "lesson9.best.safetensors";

/* --- 1. the truth: Morse's potential (lesson 5) of atoms at random, in units of its spread --- */

static double x[ALL][ATOMS][3], truth[ALL];

static void make_clusters(void)
{
    eqnn_ctx *c = eqnn_make(NULL);
    double mean = 0, square = 0;
    eqnn_random(c, "clusters", 1, ALL * ATOMS * 3, x[0][0]); /* normal numbers */
    eqnn_free(c);
    for (int k = 0; k < ALL; k++) {
        for (int i = 0; i < ATOMS; i++)
            for (int j = 0; j < i; j++) {
                const double *a = x[k][i], *b = x[k][j];
                double r = sqrt(pow(a[0] - b[0], 2) + pow(a[1] - b[1], 2) + pow(a[2] - b[2], 2));
                truth[k] += pow(1 - exp(-2 * (r - 1)), 2);
            }
        mean += truth[k] / ALL, square += truth[k] * truth[k] / ALL;
    }
    for (int k = 0; k < ALL; k++) truth[k] = (truth[k] - mean) / sqrt(square - mean * mean);
}

/* --- 2. the network: n clusters as one graph, in which each is an example of its own --- */

static eqnn_tensor *energy(eqnn_ctx *c, const int *items, int n)
{
    double at[VALID][ATOMS][3];
    int example[VALID * ATOMS];
    for (int i = 0; i < n * ATOMS; i++) example[i] = i / ATOMS;
    for (int i = 0; i < n; i++) memcpy(at[i], x[items[i]], sizeof at[i]);
    eqnn_tensor *pos = eqnn_from_double(c, n * ATOMS, 3, at[0][0]);
    eqnn_graph_opts o = { .example = example, .examples = n };
    eqnn_network_opts net = { .hidden = "16x0e+8x1o", .out = "1x0e", .layers = 1, .lmax = 1,
                              .radius = RADIUS, .radial_neurons = 32, .neighbours = ATOMS - 1,
                              .nodes = ATOMS, .reduce = 1 };
    return eqnn_network(NULL, NULL, pos, eqnn_radius_graph(pos, RADIUS, &o), "net", &net);
}

/* The mean squared error on the clusters that are not for training; guessing the mean makes 1. */
static double error_of(eqnn_ctx *c)
{
    int items[VALID];
    for (int i = 0; i < VALID; i++) items[i] = TRAIN + i;
    int recording = eqnn_recording(c, 0); /* no gradients are wanted: no tape */
    eqnn_tensor *y = energy(c, items, VALID);
    double error = eqnn_value(eqnn_mse(y, eqnn_from_double(c, VALID, 1, truth + TRAIN)));
    eqnn_recording(c, recording);
    eqnn_reset(c);
    return error;
}

/* --- 3. a step: what a worker does with its part of a batch --- */

typedef struct batch { const int *items; int n; double loss[PARTS]; } batch;

static void learn(eqnn_ctx *worker, int part, int parts, void *user)
{
    batch *b = user;
    double want[BATCH];
    int from = b->n * part / parts, n = b->n * (part + 1) / parts - from;
    for (int i = 0; i < n; i++) want[i] = truth[b->items[from + i]];
    eqnn_tensor *y = energy(worker, b->items + from, n);
    eqnn_tensor *loss = eqnn_mse(y, eqnn_from_double(worker, n, 1, want));
    loss = eqnn_scale(loss, (double)n / b->n); /* the parts' sum is the mean over the batch */
    b->loss[part] = eqnn_value(loss);
    eqnn_backward(loss);
}

/* --- 4. a training: weights come into being at the first call of the model, before workers --- */

static eqnn_ctx *train(const char *title, int threads, int stop, int resume)
{
    eqnn_ctx *c = eqnn_make(&(eqnn_opts){ .seed = 1, .threads = threads });
    error_of(c);
    eqnn_parts *parts = eqnn_parts_make(c, PARTS, threads);
    eqnn_run *run = eqnn_run_make(c, title, TRAIN, &(eqnn_run_opts){
        .batch = BATCH, .epochs = EPOCHS, .looks = EPOCHS, .path = file, .resume = resume });
    eqnn_adam *adam = eqnn_adam_make(c, &(eqnn_adam_opts){ .clip = 10 });
    eqnn_schedule rate = { .kind = EQNN_COSINE, .rate = 1e-2, .warmup = 50000 }; /* a twentieth */
    batch b = { 0 };
    while ((b.n = eqnn_run_next(run, &b.items)) >= 0) {
        double loss = 0;
        if (b.n == 0) eqnn_run_look(run, error_of(c)); /* is due, and no step */
        if (b.n == 0) continue;
        eqnn_adam_rate(adam, eqnn_run_rate(run, &rate));
        eqnn_parts_run(parts, learn, &b);
        eqnn_adam_step(adam), eqnn_reset(c);
        for (int k = 0; k < PARTS; k++) loss += b.loss[k];
        eqnn_run_step(run, loss, b.n);
        if (stop && eqnn_run_epochs(run) >= stop) break;
    }
    if (!stop) eqnn_run_best(run);
    eqnn_run_free(run); /* saves what was done */
    eqnn_parts_free(parts);
    return c;
}

/* --- 5. the same training in three ways --- */

int main(void)
{
    static const char *const title[3] = { "one thread", "two threads", "stopped, resumed" };
    eqnn_ctx *c[4];
    int good = 1;
    double error[4], start = eqnn_clock();
    make_clusters();
    for (int k = 0; k < 3; k++) {
        if (k == 2) eqnn_free(train(title[k], 2, MIDDLE, 0));
        c[k] = train(title[k], k ? 2 : 1, 0, k == 2);
        error[k] = error_of(c[k]);
        printf("%-18s error %.9f   %4.1f s\n", title[k], error[k], eqnn_clock() - start);
        start = eqnn_clock();
    }
    c[3] = eqnn_make(NULL); /* as a program would that only uses the network */
    eqnn_load(c[3], best, NULL);
    error[3] = error_of(c[3]);
    printf("%-18s error %.9f\n", "loaded elsewhere", error[3]);
    for (int k = 0; k < 4; k++) {
        if (eqnn_error(c[k])) printf("error: %s\n", eqnn_error(c[k]));
        good &= !eqnn_error(c[k]) && error[k] == error[0] && error[k] < 0.2;
        eqnn_free(c[k]);
    }
    printf("the mean's is 1; these are %s to the last bit\n", good ? "the same" : "NOT the same");
    eqnn_run_forget(file);
    return good ? 0 : 1;
}
