/* double_spring.c - what does a network that knows mechanics, or symmetry, make of a double spring?

   cc -O2 -fopenmp -I. examples/double_spring.c -lm -o double_spring && ./double_spring --epochs 200
   (--help lists the options)

   Two masses hang one below the other by springs and swing in space (eqnn_system_find "springs" in
   eqnn_data.h). A network sees short pieces of trajectories, 0.8 s of 500 systems, and is then
   asked to continue others for 30 s. It is the right-hand side of a differential equation, in one
   of two ways:

      --model node         dz/dt = net(z): a neural ordinary differential equation
      --model hnn          net(z) is an energy H, and dz/dt = (dH/dp, -dH/dx): energy is conserved
                           whatever was learned (Greydanus et al. 2019, arXiv:1906.01563)
      --network mlp        an ordinary network of the 12 numbers (x1, x2, p1, p2)
      --network emlp       one that respects --group: with O2eR3, all that turn about the vertical
                           or are mirrored in it; then hnn conserves angular momentum too
                           (Finzi, Welling, Wilson 2021, arXiv:2104.09459)

   Each option may be a list. You will see a table of the errors of 30 s roll-outs, between 0 and 1:

      e = rms(a - b) / (rms(a) + rms(b))     a predicted, b true, over the 12 numbers of a state

   and the same of angular momentum and energy against their values at the start, all as geometric
   means over trajectories and times (errors below 1e-5 count as 1e-5). A trajectory that cannot be
   followed to its end has error 1 from there on; the table says how many are lost. Beside the
   models stand "nothing moves" and the true equations, solved by the same integrator.

   It teaches: a network can stand inside a differential equation, with a loss that is where the
   motion leads; and what is conserved need not be learned: energy follows from there being an H,
   angular momentum from its symmetry.

   The paper's setting is the default: 128 channels, 3 layers, Adam 3e-3, 2000 steps on 500 pieces,
   tolerance 1e-4 in training and 2e-6 in roll-outs. Its errors: hnn .028 (mlp), .012 (emlp); node
   .048, .019. They are means of three runs: --trials 3 trains every model with as many first
   weights and ends with a table of means and deviations beside the paper's.

   Derivatives of the solution go through the solver's own steps (--derivative tape), by default
   with the network's inside computed twice instead of kept (checkpoint): a tenth of the memory in
   the same time. --derivative adjoint solves a second equation backwards instead.

   "make test" runs it with
      --model hnn,node --network mlp,emlp --trials 2 --epochs 2 --n-train 6 --n-test 3 --ch 8
      --time 2 */

#define EQNN_IMPLEMENTATION
#include "eqnn_data.h"
#include "eqnn_groups.h"

/* ------------------------------------------------------------------------------------------------
   What is studied
   ---------------------------------------------------------------------------------------------- */

enum { STATE = 12, HALF = 6, LENGTH = 5 }; /* numbers of a state; states of a training piece */
enum { TAPE, CHECKPOINT, ADJOINT };

typedef struct study {
    /* asked for */
    const char *models, *networks, *groups, *out;
    eqnn_run_opts run; /* epochs, resume */
    int n_train, n_test, batch, ch, layers, derivative, every, trials;
    double rate, dt, rtol, rtol_far;
    uint64_t data_seed;
    eqnn_opts context;
    /* the data */
    eqnn_ctx *c;
    const eqnn_system *system;
    int times;            /* of a roll-out                              */
    double *time;         /* [times]                                    */
    double *train, *test; /* [n_train], [n_test] pieces [LENGTH][STATE] */
    double *far;          /* [n_test][times][STATE] the truth           */
    double *batch_z;      /* [batch][STATE]                             */
} study;

/* What says how a state changes: a model with weights, or an equation without. */
typedef struct predictor predictor;
struct predictor {
    char name[64];
    eqnn_field field;     /* NULL: nothing moves                                */
    int hamiltonian;
    char group[24];       /* of an emlp; empty: an mlp                          */
    const eqnn_group *g;
    const eqnn_rep *four, *one; /* vectors, scalar                              */
    int learns;
    const study *s;
    eqnn_ctx *c;
    eqnn_run *run;
    /* what came out */
    double mse_train, mse_test, seconds; /* seconds of an epoch                 */
    double *z;            /* [n_test][times][STATE] the roll-outs               */
    double *curve[3];     /* [times] error, angular momentum, energy            */
    double mean[3];
    int lost;             /* roll-outs that did not reach the end               */
};

/* Piece i of a set begins at z[i * LENGTH * STATE]. */
static const double *state(const double *z, int piece, int k)
{
    return z + ((size_t)piece * LENGTH + (size_t)k) * STATE;
}

/* ------------------------------------------------------------------------------------------------
   Data
   ---------------------------------------------------------------------------------------------- */

static int prepare(study *s)
{
    const uint64_t first_test = 1 << 20; /* the same systems, however many are for training */
    size_t all = (size_t)s->n_test * (size_t)s->times * STATE, piece = LENGTH * STATE;
    double *start = malloc((size_t)s->n_test * STATE * sizeof *start);
    eqnn_chunk_opts o = { .seed = s->data_seed, .dt = s->dt, .length = LENGTH };
    s->system = eqnn_system_find(s->c, "springs");
    s->time = malloc((size_t)s->times * sizeof *s->time);
    s->train = malloc((size_t)s->n_train * piece * sizeof *s->train);
    s->test = malloc((size_t)s->n_test * piece * sizeof *s->test);
    s->far = malloc(all * sizeof *s->far);
    s->batch_z = malloc((size_t)(s->batch + s->n_test) * STATE * sizeof *s->batch_z);
    if (!start || !s->time || !s->train || !s->test || !s->far || !s->batch_z) {
        free(start);
        return eqnn_fail(s->c, "no memory for the trajectories"), 0;
    }
    for (int k = 0; k < s->times; k++) s->time[k] = s->dt * k;
    for (int i = 0; i < s->n_test; i++)
        s->system->start(s->system, s->data_seed, first_test + (uint64_t)i,
                         start + (size_t)i * STATE);
    eqnn_system_chunks(s->c, s->system, &o, 0, s->n_train, s->train);
    eqnn_system_chunks(s->c, s->system, &o, first_test, s->n_test, s->test);
    eqnn_system_run(s->c, s->system, 0, s->n_test, start, s->time, s->times, s->far);
    free(start);
    return !eqnn_error(s->c);
}

static void release(study *s)
{
    free(s->time);
    free(s->train);
    free(s->test);
    free(s->far);
    free(s->batch_z);
}

/* ------------------------------------------------------------------------------------------------
   Right-hand sides
   ---------------------------------------------------------------------------------------------- */

/* Layers with swish between them, initialised as the paper's. */
static eqnn_tensor *mlp(const predictor *p, eqnn_tensor *z, int out)
{
    eqnn_mlp_opts o = { .layer = { .weight = { .kind = EQNN_INIT_GLOROT_NORMAL },
                                   .bias = { .kind = EQNN_INIT_ZEROS } } };
    char widths[512] = "";
    for (int i = 0; i < p->s->layers; i++)
        snprintf(widths + strlen(widths), sizeof widths - strlen(widths), "%d,", p->s->ch);
    snprintf(widths + strlen(widths), sizeof widths - strlen(widths), "%d", out);
    return eqnn_mlp(z, "net", widths, &o);
}

/* The network of the study, from states [rows, STATE], which are four vectors, to one number each
   or to four vectors. The solver sees mere numbers and knows nothing of groups. */
static eqnn_tensor *network(const predictor *p, eqnn_tensor *z, int out)
{
    eqnn_emlp_opts o = { .channels = p->s->ch, .layers = p->s->layers };
    if (!p->g) return mlp(p, z, out);
    return eqnn_emlp(z, "net", p->four, out == 1 ? p->one : p->four, p->g, &o);
}

/* (dH/dp, -dH/dx) of the sum over all rows, each of which depends on its own state only. Slopes
   need the tape, also where nothing else does. */
static eqnn_tensor *hamilton(eqnn_tensor *H, eqnn_tensor *z)
{
    eqnn_tensor *d = eqnn_grad(eqnn_sum(H), z);
    eqnn_tensor *dx = eqnn_slice(d, HALF, HALF), *dp = eqnn_neg(eqnn_slice(d, 0, HALF));
    return eqnn_concat(dx, dp);
}

static eqnn_tensor *right_side(eqnn_tensor *const *z, int n, void *user)
{
    const predictor *p = *(predictor **)user;
    (void)n;
    if (!p->hamiltonian) return network(p, z[0], STATE);
    int recording = eqnn_recording(p->c, 1);
    eqnn_tensor *dz = hamilton(network(p, z[0], 1), z[0]);
    eqnn_recording(p->c, recording);
    return dz;
}

static eqnn_tensor *learned(eqnn_tensor *z, double t, void *user)
{
    predictor *p = user;
    (void)t;
    if (p->s->derivative != CHECKPOINT) return right_side(&z, 1, &p);
    return eqnn_checkpoint(right_side, &z, 1, &p, sizeof p);
}

/* The energy of a spring (d - 1)^2, d = |v| of rows v [rows, 3]. */
static eqnn_tensor *spring(eqnn_tensor *v)
{
    eqnn_tensor *d = eqnn_sqrt(eqnn_sum_cols(eqnn_square(v)));
    return eqnn_square(eqnn_shift(d, -1));
}

/* The system itself, written as a network would be. */
static eqnn_tensor *truth(eqnn_tensor *z, double t, void *user)
{
    eqnn_ctx *c = eqnn_context(z);
    int recording = eqnn_recording(c, 1);
    eqnn_tensor *x1 = eqnn_slice(z, 0, 3), *x2 = eqnn_slice(z, 3, 3);
    eqnn_tensor *H = eqnn_scale(eqnn_sum_cols(eqnn_square(eqnn_slice(z, HALF, HALF))), 0.5);
    (void)t, (void)user;
    H = eqnn_add(H, eqnn_scale(spring(x1), 0.5));
    H = eqnn_add(H, spring(eqnn_sub(x1, x2)));
    H = eqnn_add(H, eqnn_slice(x1, 2, 1));
    H = eqnn_add(H, eqnn_slice(x2, 2, 1));
    eqnn_tensor *dz = hamilton(H, z);
    eqnn_recording(c, recording);
    return dz;
}

/* ------------------------------------------------------------------------------------------------
   Training: Adam on the mean squared distance from the pieces
   ---------------------------------------------------------------------------------------------- */

/* States k of the pieces listed (items NULL: all n). */
static eqnn_tensor *states(const predictor *p, const double *z, int n, const int *items, int k)
{
    for (int i = 0; i < n; i++)
        memcpy(p->s->batch_z + (size_t)i * STATE, state(z, items ? items[i] : i, k),
               STATE * sizeof *z);
    return eqnn_from_double(p->c, n, STATE, p->s->batch_z);
}

/* Mean over pieces, their five times (the first has no error) and twelve numbers. A first step of
   0.25 s is about what the tolerance allows; the solver's own guess is shorter and costs half more.
   More than a hundred steps would fill the memory, and mean that training went wrong. */
static eqnn_tensor *loss_of(predictor *p, const double *z, int n, const int *items)
{
    eqnn_ode_opts o = { .rtol = p->s->rtol, .step = 1.25 * p->s->dt, .max_steps = 100,
                        .adjoint = p->s->derivative == ADJOINT };
    eqnn_tensor *y[LENGTH], *sum = NULL;
    if (!eqnn_ode(p->field, states(p, z, n, items, 0), p->s->time, LENGTH, y, p, &o)) return NULL;
    for (int k = 1; k < LENGTH; k++) {
        eqnn_tensor *part = eqnn_mse(y[k], states(p, z, n, items, k));
        sum = sum ? eqnn_add(sum, part) : part;
    }
    return eqnn_scale(sum, 1.0 / LENGTH);
}

/* The loss without learning. */
static double evaluate(predictor *p, const double *z, int n)
{
    int recording = eqnn_recording(p->c, 0);
    double value = 0;
    for (int from = 0; from < n; from += p->s->batch) {
        int count = n - from < p->s->batch ? n - from : p->s->batch;
        value += eqnn_value(loss_of(p, state(z, from, 0), count, NULL)) * count / n;
        eqnn_reset(p->c);
    }
    eqnn_recording(p->c, recording);
    return value;
}

/* The loss that is shown and written is the mean of an epoch. */
static void step(predictor *p, eqnn_adam *adam, int n, const int *items)
{
    if (p->run->batch == 0) p->run->loss = (eqnn_average){ 0 };
    eqnn_tensor *loss = loss_of(p, p->s->train, n, items);
    double value = eqnn_value(loss);
    eqnn_backward(loss);
    eqnn_adam_step(adam);
    eqnn_reset(p->c);
    eqnn_run_step(p->run, value, n);
    eqnn_run_show(p->run, "train %.2e", eqnn_average_value(&p->run->loss));
}

static void write_log(predictor *p, eqnn_csv *log)
{
    double epoch = eqnn_run_epochs(p->run);
    p->mse_test = evaluate(p, p->s->test, p->s->n_test);
    if (!eqnn_run_look(p->run, NAN)) return;
    const double row[] = { epoch, eqnn_average_value(&p->run->loss), p->mse_test,
                           p->run->step_seconds / epoch };
    eqnn_csv_row(log, p->name, 4, row);
}

/* Weights come into being by a look at one piece, which leaves nothing else behind. */
static void train(predictor *p, eqnn_csv *log)
{
    const study *s = p->s;
    const int *items;
    eqnn_run_opts o = s->run;
    o.batch = s->batch, o.save = 20, o.looks = (double)o.epochs / s->every;
    o.path = eqnn_path_in(s->c, s->out, "%s.safetensors", p->name);
    eqnn_mark mark = eqnn_mark_make(p->c);
    eqnn_rewind(mark, loss_of(p, s->train, 1, NULL));
    p->run = eqnn_run_make(p->c, p->name, s->n_train, &o);
    eqnn_adam *adam = eqnn_adam_make(p->c, &(eqnn_adam_opts){ .rate = s->rate });
    for (int n; (n = eqnn_run_next(p->run, &items)) >= 0;) {
        if (n > 0) step(p, adam, n, items);
        else write_log(p, log);
    }
    if (p->run && p->run->steps) p->seconds = p->run->step_seconds / eqnn_run_epochs(p->run);
    if (p->run) p->mse_train = eqnn_average_value(&p->run->loss);
    eqnn_run_free(p->run);
    p->run = NULL;
}

/* ------------------------------------------------------------------------------------------------
   Roll-outs
   ---------------------------------------------------------------------------------------------- */

static double *rolled(const predictor *p, int i, int k)
{
    return p->z + ((size_t)i * (size_t)p->s->times + (size_t)k) * STATE;
}

/* Trajectories first..first+n-1, with steps in common, from time k to time k + m. */
static int stretch(predictor *p, int first, int n, int k, int m)
{
    enum { MOST = 16 };
    eqnn_tensor *y[MOST + 1];
    eqnn_ode_opts o = { .rtol = p->s->rtol_far, .max_steps = 1000 };
    for (int i = 0; i < n; i++)
        memcpy(p->s->batch_z + (size_t)i * STATE, rolled(p, first + i, k), STATE * sizeof(double));
    eqnn_tensor *z = eqnn_from_double(p->c, n, STATE, p->s->batch_z);
    int good = eqnn_ode(p->field, z, p->s->time + k, m + 1, y, p, &o);
    for (int j = 1; good && j <= m; j++)
        for (int i = 0; i < n; i++)
            for (int d = 0; d < STATE; d++) rolled(p, first + i, k + j)[d] = eqnn_at(y[j], i, d);
    eqnn_reset(p->c);
    return good;
}

/* From time k to the end. When the solver gives up, the group is divided until it is known which
   trajectories it cannot follow: they are NaN from there on. */
static void follow(predictor *p, int first, int n, int k, eqnn_progress *bar)
{
    const study *s = p->s;
    while (k + 1 < s->times && !eqnn_interrupted()) {
        int m = s->times - 1 - k < 10 ? s->times - 1 - k : 10;
        if (stretch(p, first, n, k, m)) {
            k += m;
            eqnn_progress_show(bar, (int64_t)first * s->times + (int64_t)n * (k + 1), "t = %g",
                               s->time[k]);
            continue;
        }
        if (!eqnn_error(p->c) || strncmp(eqnn_error(p->c), "ode: ", 5)) return;
        eqnn_clear(p->c);
        if (n > 1) {
            follow(p, first, n / 2, k, bar);
            follow(p, first + n / 2, n - n / 2, k, bar);
        } else {
            for (double *z = rolled(p, first, k + 1); z < rolled(p, first + 1, 0);) *z++ = NAN;
        }
        return;
    }
}

/* Every trajectory starts where the truth does. */
static void roll_out(predictor *p)
{
    const study *s = p->s;
    enum { TOGETHER = 100 };
    eqnn_progress bar;
    for (int i = 0; i < s->n_test; i++)
        for (int k = 0; k < (p->field ? 1 : s->times); k++)
            memcpy(rolled(p, i, k), s->far + (size_t)i * (size_t)s->times * STATE,
                   STATE * sizeof(double));
    if (!p->field) return;
    int recording = eqnn_recording(p->c, 0);
    eqnn_progress_start(&bar, stderr, "roll-out", (int64_t)s->n_test * s->times, 0);
    for (int first = 0; first < s->n_test && !eqnn_error(p->c); first += TOGETHER)
        follow(p, first, s->n_test - first < TOGETHER ? s->n_test - first : TOGETHER, 0, &bar);
    eqnn_progress_end(&bar);
    eqnn_recording(p->c, recording);
}

/* rms(a - b) / (rms(a) + rms(b)), at least 1e-5; 1 when a is not a number. */
static double relative(const double *a, const double *b, int n)
{
    double aa = 0, bb = 0, dd = 0;
    for (int i = 0; i < n; i++) {
        aa += a[i] * a[i];
        bb += b[i] * b[i];
        dd += (a[i] - b[i]) * (a[i] - b[i]);
    }
    if (!(aa + dd < INFINITY)) return 1;
    double e = aa + bb > 0 ? sqrt(dd) / (sqrt(aa) + sqrt(bb)) : 0;
    return e > 1e-5 ? e : 1e-5;
}

/* Geometric means over trajectories, at each time and of all. */
static void score(predictor *p)
{
    const study *s = p->s;
    for (int k = 0; k < s->times; k++) {
        double sum[3] = { 0, 0, 0 };
        for (int i = 0; i < s->n_test; i++) {
            const double *z = rolled(p, i, k), *start = rolled(p, i, 0);
            const double *true_z = s->far + ((size_t)i * (size_t)s->times + (size_t)k) * STATE;
            double spin[2] = { s->system->spin(s->system, z), s->system->spin(s->system, start) };
            double energy[2] = { s->system->energy(s->system, z),
                                 s->system->energy(s->system, start) };
            sum[0] += log(relative(z, true_z, STATE));
            sum[1] += log(relative(&spin[0], &spin[1], 1));
            sum[2] += log(relative(&energy[0], &energy[1], 1));
            p->lost += k == s->times - 1 && !(z[0] * z[0] < INFINITY);
        }
        for (int j = 0; j < 3; j++) {
            p->curve[j][k] = exp(sum[j] / s->n_test);
            p->mean[j] += sum[j] / s->n_test / s->times;
        }
    }
    for (int j = 0; j < 3; j++) p->mean[j] = exp(p->mean[j]);
}

/* ------------------------------------------------------------------------------------------------
   Reports
   ---------------------------------------------------------------------------------------------- */

static void print_summary(const study *s, const predictor *p, int n)
{
    eqnn_table *t = eqnn_table_make(s->c, "model|parameters|MSE train|MSE test|roll-out error|"
                                          "at end|ang. momentum|energy|lost|s/epoch");
    for (int i = 0; i < n; i++) {
        int learns = p[i].learns;
        eqnn_table_cell(t, "%s", p[i].name);
        eqnn_table_cell(t, learns ? "%.0f" : "-", learns ? (double)eqnn_parameter_size(p[i].c) : 0);
        eqnn_table_cell(t, "%.2e", p[i].mse_train);
        eqnn_table_cell(t, "%.2e", p[i].mse_test);
        eqnn_table_cell(t, "%.5f", p[i].mean[0]);
        eqnn_table_cell(t, "%.5f", p[i].curve[0][s->times - 1]);
        for (int j = 1; j < 3; j++) eqnn_table_cell(t, "%.2e", p[i].mean[j]);
        eqnn_table_cell(t, "%d of %d", p[i].lost, s->n_test);
        eqnn_table_cell(t, learns ? "%.3f" : "-", p[i].seconds);
    }
    eqnn_table_print(t, stdout);
    eqnn_table_free(t);
}

/* The paper's table 1; with the authors' notebook, which has D2 too. */
static const struct published { const char *name; double mean, deviation; } published[] = {
    { "hnn-mlp", .0281, .0011 },            { "node-mlp", .0482, .0002 },
    { "hnn-emlp-O2eR3", .0121, .0018 },     { "node-emlp-O2eR3", .0192, .0013 },
    { "hnn-emlp-SO2eR3", .0145, .0027 },    { "node-emlp-SO2eR3", .0518, .0357 },
    { "hnn-emlp-DkeR3(6)", .0132, .0021 },  { "node-emlp-DkeR3(6)", .0361, .0259 },
    { "hnn-emlp-DkeR3(2)", .0861, .1453 },  { "node-emlp-DkeR3(2)", .0293, .0121 },
};

/* Models from p[2] on, the trials of each behind one another: means and deviations. */
static void print_trials(const study *s, const predictor *p, int n)
{
    eqnn_table *t = eqnn_table_make(s->c, "model|roll-out error|+-|paper|+-|ang. momentum|+-|"
                                          "energy|+-");
    for (int i = 2; i < n; i += s->trials) {
        eqnn_table_cell(t, "%s", p[i].name);
        for (int j = 0; j < 3; j++) {
            double mean = 0, square = 0, paper[2] = { NAN, NAN };
            for (int k = i; k < i + s->trials; k++) mean += p[k].mean[j] / s->trials;
            for (int k = i; k < i + s->trials; k++)
                square += (p[k].mean[j] - mean) * (p[k].mean[j] - mean) / (s->trials - 1);
            eqnn_table_cell(t, j ? "%.2e" : "%.4f", mean);
            eqnn_table_cell(t, j ? "%.1e" : "%.4f", sqrt(square));
            if (j) continue;
            for (size_t k = 0; k < sizeof published / sizeof *published; k++)
                if (!strcmp(published[k].name, p[i].name))
                    paper[0] = published[k].mean, paper[1] = published[k].deviation;
            for (int k = 0; k < 2; k++) eqnn_table_number(t, "%.4f", paper[k]);
        }
    }
    printf("\nMeans of %d trials:\n\n", s->trials);
    eqnn_table_print(t, stdout);
    eqnn_table_free(t);
}

static void write_summary(const study *s, const predictor *p, int n)
{
    eqnn_csv *f = eqnn_csv_open(s->c, eqnn_path_in(s->c, s->out, "summary.csv"),
                                "model,parameters,mse_train,mse_test,rollout_error,spin_error,"
                                "energy_error,lost,seconds_per_epoch", 0);
    for (int i = 0; i < n; i++) {
        eqnn_csv_text(f, p[i].name);
        eqnn_csv_number(f, p[i].learns ? (double)eqnn_parameter_size(p[i].c) : 0);
        eqnn_csv_number(f, p[i].mse_train);
        eqnn_csv_number(f, p[i].mse_test);
        for (int j = 0; j < 3; j++) eqnn_csv_number(f, p[i].mean[j]);
        eqnn_csv_number(f, p[i].lost);
        eqnn_csv_number(f, p[i].seconds);
        eqnn_csv_end(f);
    }
    eqnn_csv_close(f);
    f = eqnn_csv_open(s->c, eqnn_path_in(s->c, s->out, "rollout.csv"),
                      "model,time,error,spin_error,energy_error", 0);
    for (int i = 0; i < n; i++)
        for (int k = 0; k < s->times; k++) {
            eqnn_csv_text(f, p[i].name);
            eqnn_csv_number(f, s->time[k]);
            for (int j = 0; j < 3; j++) eqnn_csv_number(f, p[i].curve[j][k]);
            eqnn_csv_end(f);
        }
    eqnn_csv_close(f);
}

/* Models have the plot's colours; what learns nothing is grey and dashed. */
static eqnn_series_opts style(const predictor *p)
{
    if (p->learns) return (eqnn_series_opts){ 0 };
    return (eqnn_series_opts){ .dashed = 1, .colour = p->field ? "#777777" : "#bbbbbb",
                               .size = 1.4 };
}

static void draw(const study *s, const predictor *p, int n)
{
    static const char *const title[3] = { "Distance from the truth", "Angular momentum", "Energy" };
    eqnn_plot *panel[3], *loss;
    for (int j = 0; j < 3; j++) {
        panel[j] = eqnn_plot_make(s->c, &(eqnn_plot_opts){ .title = title[j], .log_y = 1,
            .x_label = "time in s", .y_label = j ? "relative change" : "relative error" });
        for (int k = 0; k < 2 * n; k++) { /* models first: the same colours as in losses.svg */
            const predictor *q = &p[k % n];
            eqnn_series_opts o = style(q);
            if (q->learns == (k < n))
                eqnn_plot_add(panel[j], j ? NULL : q->name, s->times, s->time, q->curve[j], &o);
        }
    }
    eqnn_plots_save(s->c, eqnn_path_in(s->c, s->out, "rollout.svg"), panel, 3, 3);
    for (int j = 0; j < 3; j++) eqnn_plot_free(panel[j]);
    loss = eqnn_plot_make(s->c, &(eqnn_plot_opts){ .title = "Test error while training",
        .x_label = "epoch", .y_label = "mean squared error", .log_y = 1 });
    const char *log = eqnn_path_in(s->c, s->out, "log.csv");
    for (int i = 0; i < n; i++)
        if (p[i].learns) eqnn_plot_csv(loss, log, p[i].name, 1, 3, NULL);
    eqnn_plot_save(loss, eqnn_path_in(s->c, s->out, "losses.svg"));
    eqnn_plot_free(loss);
}

static void print_verdict(const predictor *p, int n)
{
    const predictor *best = NULL;
    for (int i = 0; i < n; i++)
        if (p[i].learns && (!best || p[i].mean[0] < best->mean[0])) best = &p[i];
    if (best)
        printf("\n%s has the smallest roll-out error of the models, %.4f: %.2f times that of "
               "\"nothing moves\".\n", best->name, best->mean[0], best->mean[0] / p[0].mean[0]);
}

/* ------------------------------------------------------------------------------------------------
   The program
   ---------------------------------------------------------------------------------------------- */

enum { MOST_PREDICTORS = 128 };

/* The first trial has the model's name, the others the number behind it and seeds of their own. */
static void add_trial(study *s, predictor *p, int *n, int hnn, const char *group, int length,
                      int trial)
{
    eqnn_opts context = s->context;
    context.seed += (uint64_t)trial;
    predictor *q = &p[*n];
    if (*n == MOST_PREDICTORS || length >= (int)sizeof q->group) {
        eqnn_fail(s->c, "--group '%.*s': too many models, or too long a name", length, group);
        return;
    }
    *q = (predictor){ .field = learned, .learns = 1, .hamiltonian = hnn, .s = s,
                      .c = eqnn_make(&context) };
    snprintf(q->group, sizeof q->group, "%.*s", length, group);
    int named = snprintf(q->name, sizeof q->name, "%s-%s%s", hnn ? "hnn" : "node",
                         length ? "emlp-" : "mlp", q->group);
    if (trial) snprintf(q->name + named, sizeof q->name - (size_t)named, "-%d", trial + 1);
    if (length) q->g = eqnn_group_make(q->c, q->group);
    if (q->g) q->four = eqnn_rep_make(q->c, "4*V", q->g);
    if (q->four && eqnn_rep_size(q->four) != 12)
        eqnn_fail(q->c, "4*V has to be two positions and two momenta in space: %s acts on %d "
                        "dimensions, not on 3", q->group, eqnn_group_dim(q->g));
    if (q->g) q->one = eqnn_rep_make(q->c, "Scalar", q->g);
    ++*n;
}

static void add_model(study *s, predictor *p, int *n, int hnn, const char *group, int length)
{
    for (int trial = 0; trial < s->trials; trial++) add_trial(s, p, n, hnn, group, length, trial);
}

/* An mlp, or an emlp for each of the groups. */
static void add_networks(study *s, predictor *p, int *n, int hamiltonian)
{
    const char *word, *list = s->networks, *group;
    for (int length; (length = eqnn_next_word(&list, &word)) > 0 && !eqnn_error(s->c);) {
        const char *groups = s->groups;
        if (length == 3 && !strncmp(word, "mlp", 3)) add_model(s, p, n, hamiltonian, "", 0);
        else if (length == 4 && !strncmp(word, "emlp", 4)) {
            int before = *n;
            for (int k; (k = eqnn_next_word(&groups, &group)) > 0;)
                add_model(s, p, n, hamiltonian, group, k);
            if (*n == before) eqnn_fail(s->c, "--group %s: names no group", s->groups);
        } else eqnn_fail(s->c, "--network %s: choose from mlp and emlp", s->networks);
    }
}

static int list_predictors(study *s, predictor *p)
{
    int n = 2;
    p[0] = (predictor){ .name = "nothing moves", .s = s };
    p[1] = (predictor){ .name = "the true equations", .field = truth, .s = s,
                        .c = eqnn_make(&s->context) };
    const char *word, *list = s->models;
    for (int length; (length = eqnn_next_word(&list, &word)) > 0 && !eqnn_error(s->c);) {
        int hamiltonian = length == 3 && !strncmp(word, "hnn", 3);
        if (!hamiltonian && (length != 4 || strncmp(word, "node", 4)))
            eqnn_fail(s->c, "--model %s: choose from hnn and node", s->models);
        else add_networks(s, p, &n, hamiltonian);
    }
    if (n == 2)
        eqnn_fail(s->c, "--model %s, --network %s: nothing to learn", s->models, s->networks);
    return n;
}

/* Without a field the pieces' errors are those of standing still. */
static double standing_still(const double *z, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++)
        for (int k = 1; k < LENGTH; k++)
            for (int d = 0; d < STATE; d++) {
                double e = state(z, i, k)[d] - state(z, i, 0)[d];
                sum += e * e / n / LENGTH / STATE;
            }
    return sum;
}

/* Solver or training broke down: that is a result, which the table shows, and no reason to stop. */
static void accept(predictor *p)
{
    const char *error = p->c ? eqnn_error(p->c) : NULL;
    if (!error || (strncmp(error, "ode: ", 5) && strncmp(error, "adam: step", 10))) return;
    fprintf(stderr, "%s: %s\n", p->name, error);
    eqnn_clear(p->c);
}

static void measure(predictor *p)
{
    const study *s = p->s;
    accept(p);
    p->mse_train = p->field ? evaluate(p, s->train, s->n_train)
                            : standing_still(s->train, s->n_train);
    accept(p);
    p->mse_test = p->field ? evaluate(p, s->test, s->n_test) : standing_still(s->test, s->n_test);
    accept(p);
    if (!p->c || !eqnn_error(p->c)) roll_out(p);
    if (p->c && eqnn_error(p->c)) eqnn_fail(s->c, "%s: %s", p->name, eqnn_error(p->c));
    if (!eqnn_error(s->c)) score(p);
}

/* Trains (a model) and follows all test trajectories. 0 on an error, or when Ctrl-C came. */
static int study_one(predictor *p, eqnn_csv *log)
{
    const study *s = p->s;
    size_t all = (size_t)s->n_test * (size_t)s->times * STATE;
    p->z = malloc(all * sizeof *p->z);
    for (int j = 0; j < 3; j++) p->curve[j] = calloc((size_t)s->times, sizeof(double));
    if ((p->field && !p->c) || !p->z || !p->curve[0] || !p->curve[1] || !p->curve[2])
        return eqnn_fail(s->c, "no memory for %s", p->name), 0;
    if (p->learns) train(p, log);
    if (eqnn_interrupted()) return 0;
    measure(p);
    return !eqnn_error(s->c) && !eqnn_interrupted();
}

static void report(const study *s, const predictor *p, int n)
{
    print_summary(s, p, n);
    print_verdict(p, n);
    if (s->trials > 1) print_trials(s, p, n);
    if (!*s->out) return;
    write_summary(s, p, n);
    draw(s, p, n);
    if (!eqnn_error(s->c)) printf("Tables, pictures and models are in %s.\n", s->out);
}

static void run(study *s)
{
    static predictor p[MOST_PREDICTORS];
    eqnn_csv *log = NULL;
    int done = 0, n = 0;
    if (prepare(s)) n = list_predictors(s, p);
    if (*s->out && !eqnn_error(s->c) && eqnn_make_folder(s->c, s->out))
        log = eqnn_csv_open(s->c, eqnn_path_in(s->c, s->out, "log.csv"),
                            "model,epoch,mse_train,mse_test,seconds_per_epoch", s->run.resume);
    for (int i = 0; i < n && *s->out && !s->run.resume && !eqnn_error(s->c); i++)
        if (p[i].learns) eqnn_run_forget(eqnn_path_in(s->c, s->out, "%s.safetensors", p[i].name));
    while (done < n && !eqnn_error(s->c) && study_one(&p[done], log)) done++;
    eqnn_csv_close(log);
    if (done == n && n > 0) report(s, p, n);
    else if (eqnn_interrupted() && !eqnn_error(s->c))
        printf("Interrupted%s.\n", *s->out ? "; the same command with --resume continues" : "");
    for (int i = 0; i < n; i++) {
        eqnn_free(p[i].c);
        free(p[i].z);
        for (int j = 0; j < 3; j++) free(p[i].curve[j]);
    }
}

static const eqnn_option options[] = {
    { "model", "hnn", "hnn, node, or both: hnn,node" },
    { "network", "mlp", "mlp, emlp, or both" },
    { "group", "O2eR3", "of emlp: O2eR3, SO2eR3, DkeR3(6), ..., or a list" },
    { "ch", "128", "channels" },
    { "layers", "3", "hidden layers" },
    { "epochs", "2000", "passes over the training pieces" },
    { "trials", "1", "runs of every model with other first weights; the paper has 3" },
    { "n-train", "500", "training pieces" },
    { "n-test", "500", "test trajectories" },
    { "batch", "500", "pieces in a step" },
    { "rate", "3e-3", "of Adam" },
    { "rtol", "1e-4", "tolerance of the solver in training" },
    { "rtol-far", "2e-6", "and in roll-outs" },
    { "derivative", "checkpoint", "of solutions: tape, checkpoint or adjoint" },
    { "time", "30", "seconds to roll out" },
    { "every", "20", "epochs between lines of the log" },
    { "data-seed", "2021", "of the trajectories; --seed is that of the weights" },
    { "data", NULL, NULL },
    { "out", "build/double_spring", "folder for tables, pictures and models; empty: none" },
    { NULL, NULL, NULL }
};

/* What --resume needs to be told as before. */
static const char repeated[] =
    "n-train,batch,rate,rtol,data-seed,seed";

static double positive(eqnn_args *a, const char *name)
{
    double value = eqnn_args_number(a, name);
    if (!(value > 0)) eqnn_args_fail(a, "option --%s: %g is not positive", name, value);
    return value;
}

static void understand(study *s, eqnn_args *a)
{
    s->dt = 0.2;
    s->models = eqnn_args_text(a, "model");
    s->networks = eqnn_args_text(a, "network");
    s->groups = eqnn_args_text(a, "group");
    eqnn_args_only(a, strstr(s->networks, "emlp") != NULL, "group", "emlp");
    s->out = eqnn_args_text(a, "out");
    s->trials = eqnn_args_int(a, "trials", 1, 100);
    s->n_train = eqnn_args_int(a, "n-train", 1, 1000000);
    s->n_test = eqnn_args_int(a, "n-test", 1, 100000);
    s->batch = eqnn_args_int(a, "batch", 1, 100000);
    s->ch = eqnn_args_int(a, "ch", 1, 100000);
    s->layers = eqnn_args_int(a, "layers", 0, 40);
    s->every = eqnn_args_int(a, "every", 1, 1000000);
    s->rate = positive(a, "rate");
    s->rtol = positive(a, "rtol");
    s->rtol_far = positive(a, "rtol-far");
    s->times = (int)(positive(a, "time") / s->dt + 1e-9);
    if (s->times < LENGTH) s->times = LENGTH;
    s->derivative = eqnn_args_choice(a, "derivative", "tape,checkpoint,adjoint");
    s->data_seed = (uint64_t)eqnn_args_int(a, "data-seed", 1, 2147483647);
    s->run = eqnn_args_run(a, repeated);
    s->context = eqnn_args_context(a);
}

int main(int argc, char **argv)
{
    study s = { 0 };
    eqnn_args a;
    int go = eqnn_args_read(&a, argc, argv, "Learns how a double spring moves.", options);
    if (go > 0) understand(&s, &a);
    if ((s.c = eqnn_program_start(&a, &s.context)) != NULL) run(&s);
    release(&s);
    return eqnn_program_end(&a, s.c);
}
