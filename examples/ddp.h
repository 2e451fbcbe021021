/* ddp.h - what ddp_mpi.c and ddp_nccl.c have in common: a network that several processes train

   Each process, a rank of MPI, has a context of its own with all weights. The weights begin alike,
   as they depend on the seed and their names only. Of every batch a rank computes the gradient of
   its share of the examples; before an optimizer's step the gradients are replaced by their mean
   over all ranks (eqnn_set_allreduce), so that every rank takes the same step and all weights stay
   alike without being sent. That this is so, to the bit, is looked at when the training ends; on
   machines of different kinds it takes -DEQNN_STRICT.

   A rank that fails says why and ends all of them (MPI_Abort): the others wait for its gradient
   and would wait for ever. After every epoch rank 0 saves; with --resume a run goes on from there,
   with any number of ranks. Ctrl-C ends all after the epoch if it reaches a rank; most launchers
   end the ranks themselves, which costs the epoch that has begun.

   The network learns the forces on six particles in space, every pair of them joined by a spring
   (eqnn_system "coupled"), from their places and the stiffness of each. Every rank makes the data
   of all systems: they depend on the seed and a system's number only, and are made faster than
   they could be sent. */
#ifndef DDP_H
#define DDP_H
#include "eqnn_data.h"
#include <math.h>
#include <mpi.h>
#include <stdlib.h>
#include <string.h>

enum { PARTICLES = 6, AXES = 3, PLACES = PARTICLES * AXES, TESTS = 256 };

typedef struct ddp {
    eqnn_args args;
    const char *out;
    int n, batch, epochs, resume;
    int rank, ranks;      /* which process this is, of how many                                  */
    eqnn_ctx *c;
    eqnn_adam *adam;
    /* systems 0..n-1 to learn from, n..n+TESTS-1 to be tested on */
    double *place, *stiffness, *force; /* [n+TESTS] times [PLACES], [PARTICLES], [PLACES]        */
    double *error;        /* [n+TESTS] mean square error of the systems that this rank computed,
                             the last time; 0 of the others                                      */
    double seconds;       /* of training                                                         */
    /* adds the gradient of the mean error of items [n] or, with an allreduce callback, what has
       this as its mean over all ranks */
    void (*learn)(struct ddp *d, const int *items, int n);
    void *user;
} ddp;

static void ddp_learn_share(ddp *d, const int *items, int n);

/* --- beginning and end --- */

/* Says why, and ends all ranks. */
static void ddp_abort(const ddp *d, const char *why)
{
    fprintf(stderr, "rank %d of %d: %s\n", d->rank, d->ranks, why);
    MPI_Abort(MPI_COMM_WORLD, 1);
}

static void ddp_check(const ddp *d)
{
    if (eqnn_error(d->c)) ddp_abort(d, eqnn_error(d->c));
}

/* Starts MPI and reads the command line; all ranks do, only rank 0 prints. 0: there is nothing more
   to do. */
static int ddp_start(ddp *d, int *argc, char ***argv, const char *about, const eqnn_option *own)
{
    memset(d, 0, sizeof *d);
    MPI_Init(argc, argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &d->rank);
    MPI_Comm_size(MPI_COMM_WORLD, &d->ranks);
    if (d->rank > 0 && !freopen("/dev/null", "w", stdout)) ddp_abort(d, "there is no /dev/null");
    int go = eqnn_args_read(&d->args, *argc, *argv, about, own);
    if (go == 0) return 0;
    d->out = eqnn_args_text(&d->args, "out");
    d->n = eqnn_args_int(&d->args, "systems", 1, 1000000);
    d->batch = eqnn_args_int(&d->args, "batch", 1, 1000000);
    d->epochs = eqnn_args_int(&d->args, "epochs", 1, 1000000);
    d->resume = eqnn_args_on(&d->args, "resume");
    if (d->resume && !*d->out)
        snprintf(d->args.error, sizeof d->args.error, "--resume needs a folder in --out");
    return 1;
}

/* This rank's context; 0 when an option was wrong. */
static int ddp_context(ddp *d, const eqnn_opts *o)
{
    if (d->args.error[0]) return 0;
    d->c = eqnn_make(o);
    if (!d->c) ddp_abort(d, "no memory");
    ddp_check(d);
    eqnn_interrupt_catch();
    d->learn = ddp_learn_share;
    return 1;
}

/* The exit status. */
static int ddp_end(ddp *d)
{
    int status = d->args.error[0] ? 2 : 0;
    if (status && d->rank == 0) fprintf(stderr, "%s\n", d->args.error);
    free(d->place);
    free(d->stiffness);
    free(d->force);
    free(d->error);
    eqnn_free(d->c);
    MPI_Finalize();
    return status;
}

/* --- data and network --- */

/* Forces in units of their root mean square over what is learned from: who predicts nothing has an
   error of 1. */
static void ddp_data(ddp *d, uint64_t seed)
{
    size_t all = (size_t)d->n + TESTS;
    eqnn_system s;
    double z[256], dz[256], squares = 0;
    d->place = malloc(all * PLACES * sizeof *d->place);
    d->stiffness = malloc(all * PARTICLES * sizeof *d->stiffness);
    d->force = malloc(all * PLACES * sizeof *d->force);
    d->error = calloc(all, sizeof *d->error);
    if (!d->place || !d->stiffness || !d->force || !d->error) {
        eqnn_fail(d->c, "no memory for %d systems", d->n);
        return;
    }
    if (!eqnn_system_particles(d->c, "coupled", PARTICLES, AXES, &s)) return;
    for (size_t i = 0; i < all; i++) {
        s.start(&s, seed, i, z);
        s.field(&s, z, dz);
        for (int k = 0; k < PARTICLES; k++)
            d->stiffness[i * PARTICLES + (size_t)k] = z[2 * PLACES + k * s.given + 1];
        for (size_t k = 0; k < PLACES; k++) {
            d->place[i * PLACES + k] = z[k];
            d->force[i * PLACES + k] = dz[PLACES + k];
            if (i < (size_t)d->n) squares += dz[PLACES + k] * dz[PLACES + k];
        }
    }
    double scale = 1 / sqrt(squares / ((double)d->n * PLACES));
    for (size_t k = 0; k < all * PLACES; k++) d->force[k] *= scale;
}

/* Rows for the particles of the systems items [n], from numbers [.][PARTICLES][cols]. */
static eqnn_tensor *ddp_rows(ddp *d, const double *from, int cols, const int *items, int n)
{
    size_t size = PARTICLES * (size_t)cols;
    double *x = malloc(((size_t)n * size + 1) * sizeof *x);
    if (!x) return eqnn_fail(d->c, "no memory for %d systems", n);
    for (int i = 0; i < n; i++)
        memcpy(x + (size_t)i * size, from + (size_t)items[i] * size, size * sizeof *x);
    eqnn_tensor *y = eqnn_from_double(d->c, n * PARTICLES, cols, x);
    free(x);
    return y;
}

/* Every particle of a system sees every other one. */
static const eqnn_graph *ddp_graph(ddp *d, int n)
{
    int *example = malloc(((size_t)n * PARTICLES + 1) * sizeof *example);
    if (!example) return eqnn_fail(d->c, "no memory for %d systems", n), NULL;
    for (int i = 0; i < n * PARTICLES; i++) example[i] = i / PARTICLES;
    eqnn_graph_opts o = { .example = example, .examples = n };
    const eqnn_graph *g = eqnn_complete_graph(d->c, n * PARTICLES, &o);
    free(example);
    return g;
}

/* Places [particles,3] and stiffness [particles,1] to forces, 1x1o. */
static eqnn_tensor *ddp_net(eqnn_tensor *pos, eqnn_tensor *stiffness, const eqnn_graph *g)
{
    eqnn_tensor *r = eqnn_edge_vectors(pos, g), *Y = eqnn_spherical_harmonics(r, 1, NULL);
    eqnn_tensor *b = eqnn_radial_basis(eqnn_norm(r), 8, 4, NULL);
    eqnn_conv_opts o = { .neighbours = PARTICLES - 1 };
    eqnn_tensor *h = eqnn_gated_conv(stiffness, NULL, Y, b, g, "conv1", "16x0e+16x1o", &o);
    h = eqnn_gated_conv(h, NULL, Y, b, g, "conv2", "16x0e+16x1o", &o);
    return eqnn_irreps_linear(h, "readout", "1x1o", NULL);
}

/* [n,1] mean square errors of the systems items [n]. */
static eqnn_tensor *ddp_errors(ddp *d, const int *items, int n)
{
    const eqnn_graph *g = ddp_graph(d, n);
    eqnn_tensor *pos = ddp_rows(d, d->place, AXES, items, n);
    eqnn_tensor *stiffness = ddp_rows(d, d->stiffness, 1, items, n);
    eqnn_tensor *truth = ddp_rows(d, d->force, AXES, items, n);
    eqnn_tensor *found = eqnn_as(ddp_net(pos, stiffness, g), NULL);
    eqnn_tensor *squares = eqnn_sum_cols(eqnn_square(eqnn_sub(found, truth)));
    return eqnn_scale(eqnn_pool_sum(squares, g), 1.0 / PLACES);
}

/* --- sharing --- */

/* Rank r of n things has those from this one on, up to where rank r + 1 begins. */
static int ddp_first(int n, int r, int ranks)
{
    return (int)((int64_t)n * r / ranks);
}

static void ddp_note_errors(ddp *d, const eqnn_tensor *error, const int *items)
{
    const eqnn_real *e = eqnn_data(error);
    for (int i = 0; e && i < eqnn_rows(error); i++) d->error[items[i]] = (double)e[i];
}

/* Adds the gradient of weight times the sum of the errors of items [n]. */
static void ddp_learn(ddp *d, const int *items, int n, double weight)
{
    if (n == 0) return;
    eqnn_tensor *error = ddp_errors(d, items, n);
    eqnn_backward(eqnn_scale(eqnn_sum(error), weight));
    ddp_note_errors(d, error, items);
}

/* A rank's share at once. The mean over ranks of ranks/n times the sums is the mean over all. */
static void ddp_learn_share(ddp *d, const int *items, int n)
{
    int first = ddp_first(n, d->rank, d->ranks), end = ddp_first(n, d->rank + 1, d->ranks);
    ddp_learn(d, items + first, end - first, (double)d->ranks / n);
}

/* The mean error of systems first..first+n-1 that the ranks have noted. What a rank did not compute
   is 0 there, so the sums over ranks are exact, and the mean is taken in the systems' order. */
static double ddp_mean_error(ddp *d, int first, int n)
{
    double sum = 0;
    MPI_Allreduce(MPI_IN_PLACE, d->error + first, n, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
    for (int i = first; i < first + n; i++) sum += d->error[i];
    return sum / n;
}

/* --- training --- */

static const char *ddp_file(const ddp *d, const char *name)
{
    static char path[1024];
    snprintf(path, sizeof path, "%s/%s", d->out, name);
    return path;
}

/* The weights, Adam's memory and how many epochs are done, by rank 0. */
static void ddp_save(ddp *d, int64_t epoch)
{
    char text[24];
    if (!*d->out || d->rank) return;
    snprintf(text, sizeof text, "%lld", (long long)epoch);
    if (eqnn_note(d->c, "epoch", text)) eqnn_save(d->c, ddp_file(d, "model.safetensors"));
}

static int64_t ddp_resume(ddp *d)
{
    const char *text = NULL, *path = ddp_file(d, "model.safetensors");
    if (eqnn_load(d->c, path, NULL)) text = eqnn_noted(d->c, "epoch");
    if (!text) eqnn_fail(d->c, "'%s' does not say how far training had come", path);
    return text ? atoll(text) : 0;
}

/* One pass over the batches; returns the mean error on the way. */
static double ddp_epoch(ddp *d, eqnn_batches *batches, int64_t epoch)
{
    const int *items;
    int n;
    memset(d->error, 0, (size_t)d->n * sizeof *d->error);
    eqnn_batches_start(batches, epoch);
    while ((n = eqnn_batches_next(batches, &items)) > 0) {
        d->learn(d, items, n);
        eqnn_adam_step(d->adam);
        eqnn_reset(d->c);
        ddp_check(d);
    }
    return ddp_mean_error(d, 0, d->n);
}

/* Has Ctrl-C come to any rank? All get the same answer. */
static int ddp_stopped(void)
{
    int here = eqnn_interrupted(), any;
    MPI_Allreduce(&here, &any, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
    return any;
}

/* Epochs first..epochs-1; 1, or 0 when Ctrl-C came. */
static int ddp_epochs(ddp *d, int64_t first, eqnn_csv *log)
{
    eqnn_batches *batches = eqnn_batches_make(d->c, d->n, NULL, d->batch, 1);
    eqnn_progress bar;
    int stopped = 0;
    ddp_check(d);
    if (d->rank == 0) eqnn_progress_start(&bar, stderr, "training", d->epochs, first);
    for (int64_t epoch = first; epoch < d->epochs && !stopped; epoch++) {
        double start = eqnn_clock(), error = ddp_epoch(d, batches, epoch);
        d->seconds += eqnn_clock() - start;
        stopped = ddp_stopped();
        if (d->rank) continue;
        ddp_save(d, epoch + 1);
        eqnn_csv_number(log, (double)epoch + 1);
        eqnn_csv_number(log, error);
        eqnn_csv_end(log);
        eqnn_progress_show(&bar, epoch + 1, "error %.6f", error);
        ddp_check(d);
    }
    if (d->rank == 0) eqnn_progress_end(&bar);
    eqnn_batches_free(batches);
    return !stopped;
}

/* --- what came out --- */

/* FNV-1a of all weights' bytes. */
static uint64_t ddp_hash(ddp *d)
{
    uint64_t hash = UINT64_C(14695981039346656037);
    for (int i = 0; i < eqnn_parameter_count(d->c); i++) {
        const eqnn_tensor *w = eqnn_parameter_at(d->c, i);
        size_t n = (size_t)eqnn_rows(w) * (size_t)eqnn_cols(w) * sizeof(eqnn_real);
        const unsigned char *byte = (const unsigned char *)eqnn_data(w);
        for (size_t k = 0; byte && k < n; k++) hash = (hash ^ byte[k]) * UINT64_C(1099511628211);
    }
    return hash;
}

/* Root mean square error of the test systems, which the ranks share like a batch; each by itself,
   so that the number of ranks does not matter. */
static double ddp_test(ddp *d)
{
    int first = ddp_first(TESTS, d->rank, d->ranks), end = ddp_first(TESTS, d->rank + 1, d->ranks);
    int recording = eqnn_recording(d->c, 0);
    for (int i = first; i < end; i++) {
        int item = d->n + i;
        ddp_note_errors(d, ddp_errors(d, &item, 1), &item);
        eqnn_reset(d->c);
    }
    eqnn_recording(d->c, recording);
    ddp_check(d);
    return sqrt(ddp_mean_error(d, d->n, TESTS));
}

static void ddp_report(ddp *d, int64_t epochs)
{
    uint64_t hash = ddp_hash(d), ends[2] = { hash, ~hash };
    double error = ddp_test(d);
    MPI_Allreduce(MPI_IN_PLACE, ends, 2, MPI_UINT64_T, MPI_MIN, MPI_COMM_WORLD);
    if (ends[0] != ~ends[1]) eqnn_fail(d->c, "the ranks' weights are not alike");
    ddp_check(d);
    if (epochs > 0)
        printf("%d rank%s: %.0f systems a second\n", d->ranks, d->ranks > 1 ? "s" : "",
               (double)epochs * d->n / d->seconds);
    printf("forces of %d other systems are wrong by %.4f %% (100: predicting nothing)\n", TESTS,
           100 * error);
    printf("weights on every rank: %016llx\n", (unsigned long long)hash);
}

static void ddp_draw(ddp *d)
{
    eqnn_plot *plot = eqnn_plot_make(d->c, &(eqnn_plot_opts){ .title = "Forces of springs, learned",
        .x_label = "epoch", .y_label = "mean square error", .log_y = 1 });
    eqnn_plot_csv(plot, ddp_file(d, "log.csv"), NULL, 0, 1, NULL);
    eqnn_plot_save(plot, ddp_file(d, "losses.svg"));
    eqnn_plot_free(plot);
}

/* The whole run, once the context, learn and the callback are set. */
static void ddp_train(ddp *d)
{
    int item = 0, writes = d->rank == 0 && *d->out;
    eqnn_csv *log = NULL;
    ddp_data(d, eqnn_seed(d->c));
    ddp_check(d);
    ddp_errors(d, &item, 1); /* now the weights are there */
    eqnn_reset(d->c);
    int64_t first = d->resume ? ddp_resume(d) : 0;
    d->adam = eqnn_adam_make(d->c, &(eqnn_adam_opts){ .rate = 5e-3, .clip = 1 });
    if (writes && eqnn_make_folder(d->c, d->out))
        log = eqnn_csv_open(d->c, ddp_file(d, "log.csv"), "epoch,error", d->resume);
    if (ddp_epochs(d, first, log)) ddp_report(d, d->epochs - first);
    else printf("interrupted; the same command with --resume continues\n");
    eqnn_csv_close(log);
    if (writes) ddp_draw(d);
    ddp_check(d);
}
#endif
