/* emlp.c - what knowing the symmetry is worth: test error against the number of examples

   cc -O2 -I. examples/emlp.c -lm -o emlp && ./emlp --dataset inertia --n 300
   (--help lists the options)

   Three regression problems whose answers turn with the question:

      inertia    the tensor of inertia of five masses           O(3)     5 scalars, 5 vectors -> 3x3
      o5         a function of two vectors in five dimensions   O(5)     2 vectors -> a number
      particle   the matrix element of a collision              O(1,3)   4 momenta -> a number

   YOU WILL SEE   training, then a table: the test error of the network built from the group's own
                  equivariant maps beside the mean of the training set; beside an ordinary network
                  with --network mlp, one that sees transformed copies of its examples with --aug.
   IT TEACHES     every number in a layer multiplies a map that commutes with the group. A smaller
                  group (--group "SO(3)", or "Z(3)", which only permutes axes) allows more maps and
                  promises less.

   The problems, the network and the settings are those of Finzi, Welling and Wilson (ICML 2021,
   arXiv:2104.09459): Adam with rate 3e-3, batches of 500, min(900000/n, 1000) epochs, the error on
   5000 test examples when that on 1000 others is smallest, mean over --trials.

   --network, --group and --n may be lists: then there is one table of all, with the paper's numbers
   for the same groups, and sizes.svg, error against examples. --study is the paper's figure 5: the
   networks mlp, mlp+aug (which sees transformed copies) and emlp with the groups the paper has for
   the data, 30 to 30000 examples, three trials of each; hours. Networks that take no group are
   shown and asked for transformations of the first of the list.

   The folder of --out gets log.csv, losses.svg and trialK.safetensors (of lists, emlp_O3_300_trialK
   .safetensors and so on, and summary.csv); with --resume a run that was stopped goes on as if it
   had not been, and lists may have become longer.

   "make test" runs it with
      --study --n 30,50 --ch 64 --epochs 2 --test 100 --trials 2 */
#define EQNN_IMPLEMENTATION
#include "eqnn.h"
#include "eqnn_data.h"
#include "eqnn_groups.h"
#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { VALIDATION = 1000, TEST = 5000, BATCH = 500, MOST_TRIALS = 100, MOST_MODELS = 64 };

/* One problem's numbers: training examples, then those for validation, then those of the test. */
typedef struct examples {
    int train, all;
    double *x, *y;                        /* [all, task.in], [all, task.out]                */
    double scale[64], mean[16], deviation[16]; /* of the training examples                 */
} examples;

typedef struct settings {
    const eqnn_task *task;
    const char *networks, *groups, *sizes, *folder, *device, *repeated; /* by --resume */
    int channels, layers, epochs, trials, aug, resume, test, threads, projected;
    double rate, average;
    uint64_t seed;
} settings;

typedef struct result { double mean, test, equivariance; size_t weights; int constant; } result;

/* A network, its group and so many training examples: what there are trials of. */
typedef struct model {
    int plain, aug, n, epochs;            /* plain: mlp                                    */
    char group[64], label[96];            /* label: without n                              */
    char name[128], file[128];            /* before the number of a trial                  */
    result trial[MOST_TRIALS], average;   /* average: of the trials                        */
    double deviation;                     /* of their test errors                          */
} model;

/* What one trial works with. */
typedef struct trial {
    const settings *s;
    const model *m;
    eqnn_ctx *c;
    const eqnn_group *group;
    const eqnn_rep *in, *out;
    examples data;
    eqnn_run *run;
    int number;
    double best, test; /* smallest validation error, and the test error at that moment */
} trial;

/* --- the networks --- */

static eqnn_tensor *network(const trial *t, eqnn_tensor *x)
{
    const settings *s = t->s;
    if (t->m->plain) {
        char widths[256] = "";
        for (int i = 0; i < s->layers; i++)
            snprintf(widths + strlen(widths), sizeof widths - strlen(widths), "%d,", s->channels);
        snprintf(widths + strlen(widths), sizeof widths - strlen(widths), "%d", s->task->out);
        eqnn_mlp_opts o = { .layer.weight.kind = EQNN_INIT_GLOROT_NORMAL, .layer.weight.scale = 1,
                            .layer.bias.kind = EQNN_INIT_ZEROS };
        return eqnn_mlp(x, "mlp", widths, &o);
    }
    eqnn_emlp_opts o = { .channels = s->channels, .layers = s->layers,
                         .linear.projected = s->projected };
    return eqnn_emlp(x, "emlp", t->in, t->out, t->group, &o);
}

/* Inputs and outputs in their own units; inside, numbers of order one. */
static eqnn_tensor *predict(const trial *t, eqnn_tensor *x)
{
    const examples *e = &t->data;
    eqnn_tensor *scale = eqnn_from_double(t->c, 1, t->s->task->in, e->scale);
    eqnn_tensor *mean = eqnn_from_double(t->c, 1, t->s->task->out, e->mean);
    eqnn_tensor *deviation = eqnn_from_double(t->c, 1, t->s->task->out, e->deviation);
    return eqnn_affine(network(t, eqnn_div(x, scale)), deviation, mean);
}

/* --- training --- */

/* Examples items[0..n-1] of the arrays; with elements, each transformed by one of its own. */
static void batch_of(const trial *t, const int *items, int n, const double *elements,
                     eqnn_tensor **x, eqnn_tensor **y)
{
    int X = t->s->task->in, Y = t->s->task->out, d = eqnn_group_dim(t->group);
    static double bx[BATCH * 64], by[BATCH * 16];
    for (int i = 0; i < n; i++) {
        const double *from = t->data.x + (size_t)items[i] * (size_t)X, *g;
        const double *to = t->data.y + (size_t)items[i] * (size_t)Y;
        g = elements ? elements + (size_t)i * (size_t)d * (size_t)d : NULL;
        if (g) {
            eqnn_rep_apply(t->in, &t->group, &g, 1, from, bx + i * X);
            eqnn_rep_apply(t->out, &t->group, &g, 1, to, by + i * Y);
        } else {
            memcpy(bx + i * X, from, (size_t)X * sizeof *bx);
            memcpy(by + i * Y, to, (size_t)Y * sizeof *by);
        }
    }
    *x = eqnn_from_double(t->c, n, X, bx);
    *y = eqnn_from_double(t->c, n, Y, by);
}

/* Mean squared error over examples first..first+n-1. One example goes first: what layers make of
   their weights then stays for all batches, each of which is forgotten. */
static double error_on(const trial *t, int first, int n)
{
    double sum = 0;
    eqnn_tensor *x, *y;
    int recording = eqnn_recording(t->c, 0), items[BATCH] = { first };
    batch_of(t, items, 1, NULL, &x, &y);
    predict(t, x);
    for (int at = 0, k; at < n; at += k) {
        eqnn_mark m = eqnn_mark_make(t->c);
        k = n - at < BATCH ? n - at : BATCH;
        for (int i = 0; i < k; i++) items[i] = first + at + i;
        batch_of(t, items, k, NULL, &x, &y);
        sum += eqnn_value(eqnn_mse(predict(t, x), y)) * k;
        eqnn_rewind(m, NULL);
    }
    eqnn_recording(t->c, recording);
    eqnn_reset(t->c);
    return sum / n;
}

static double step(const trial *t, eqnn_adam *adam, const int *items, int n)
{
    eqnn_tensor *x, *y;
    int d = eqnn_group_dim(t->group);
    double *elements = NULL;
    if (t->m->aug) {
        elements = (double *)malloc((size_t)n * (size_t)d * (size_t)d * sizeof *elements);
        if (!elements || !eqnn_group_sample_published(t->group, "augmentation", n, elements)) {
            free(elements);
            return NAN;
        }
    }
    batch_of(t, items, n, elements, &x, &y);
    free(elements);
    eqnn_tensor *loss = eqnn_mse(predict(t, x), y);
    double value = eqnn_value(loss);
    eqnn_backward(loss);
    eqnn_adam_step(adam);
    eqnn_reset(t->c);
    return value;
}

static const char *trial_name(eqnn_ctx *c, const model *m, int number)
{
    return eqnn_format(c, "%strial %d", m->name, number + 1);
}

static const char *trial_path(eqnn_ctx *c, const settings *s, const model *m, int number)
{
    return eqnn_path_in(c, s->folder, "%strial%d.safetensors", m->file, number);
}

/* Looks at the validation set a hundred times in all. */
static void look(trial *t, eqnn_csv *log)
{
    char text[64];
    double epoch = eqnn_run_epochs(t->run), test = t->test;
    if (t->s->average > 0) eqnn_use_average(t->c, 1);
    double validation = error_on(t, t->data.train, VALIDATION);
    int better = !(validation >= t->best);
    if (better) test = error_on(t, t->data.train + VALIDATION, t->s->test);
    if (t->s->average > 0) eqnn_use_average(t->c, 0);
    if (!eqnn_run_look(t->run, NAN)) return;
    if (better) t->best = validation, t->test = test;
    snprintf(text, sizeof text, "%.17g %.17g", t->best, t->test);
    eqnn_note(t->c, "best", text);
    const double row[] = { epoch, eqnn_average_value(&t->run->loss), validation, t->test };
    eqnn_csv_row(log, trial_name(t->c, t->m, t->number), 4, row);
}

/* Weights come into being by a look at one example; then the checkpoint may fill them. */
static void begin(trial *t)
{
    const settings *s = t->s;
    const int first[1] = { 0 };
    eqnn_tensor *x, *y;
    int n = t->m->n, epochs = t->m->epochs, every = (epochs + 99) / 100;
    eqnn_run_opts o = { .batch = n < BATCH ? n : BATCH, .epochs = epochs,
                        .looks = (double)epochs / every, .resume = s->resume,
                        .settings = s->repeated, .path = trial_path(t->c, s, t->m, t->number) };
    eqnn_mark mark = eqnn_mark_make(t->c);
    batch_of(t, first, 1, NULL, &x, &y);
    eqnn_rewind(mark, predict(t, x));
    t->run = eqnn_run_make(t->c, trial_name(t->c, t->m, t->number), n, &o);
    const char *text = t->run ? eqnn_noted(t->c, "best") : NULL;
    if (text && sscanf(text, "%lf %lf", &t->best, &t->test) != 2)
        eqnn_fail(t->c, "'%s' are no errors of validation and test", text);
}

/* 0 on an error, or when Ctrl-C came. The loss shown and written is the mean of an epoch. */
static int train(trial *t, eqnn_csv *log)
{
    const int *items;
    begin(t);
    eqnn_adam_opts o = { .rate = t->s->rate, .average = t->s->average };
    eqnn_adam *adam = eqnn_adam_make(t->c, &o);
    for (int n; (n = eqnn_run_next(t->run, &items)) >= 0;) {
        if (n == 0) {
            look(t, log);
            continue;
        }
        if (t->run->batch == 0) t->run->loss = (eqnn_average){ 0 };
        eqnn_run_step(t->run, step(t, adam, items, n), n);
        eqnn_run_show(t->run, "train %.5f  validation %.5f", eqnn_average_value(&t->run->loss),
                      t->best);
    }
    eqnn_run_free(t->run);
    return !eqnn_error(t->c) && !eqnn_interrupted();
}

/* --- what came out --- */

/* |f(g x) - g f(x)| over |f(g x)| + |g f(x)|, root mean squares over test examples, each with an
   element of its own; *constant: f is the same for all of them. */
static double equivariance_error(const trial *t, int *constant)
{
    enum { N = 100 };
    int d = eqnn_group_dim(t->group), Y = t->s->task->out, items[N];
    double *elements = (double *)malloc((size_t)N * (size_t)d * (size_t)d * sizeof *elements);
    double difference = 0, one = 0, other = 0, turned[16], y[16];
    eqnn_tensor *x, *gx, *truth;
    if (!elements || !eqnn_group_sample(t->group, "check", N, elements)) {
        free(elements);
        return NAN;
    }
    for (int i = 0; i < N; i++) items[i] = t->data.train + VALIDATION + i;
    batch_of(t, items, N, NULL, &x, &truth);
    batch_of(t, items, N, elements, &gx, &truth);
    eqnn_tensor *fx = predict(t, x), *fgx = predict(t, gx);
    *constant = fx != NULL;
    for (int i = 0; i < N && fx && fgx; i++) {
        const double *g = elements + (size_t)i * (size_t)d * (size_t)d;
        for (int k = 0; k < Y; k++) y[k] = eqnn_at(fx, i, k);
        for (int k = 0; k < Y; k++) *constant &= eqnn_at(fx, 0, k) == y[k];
        eqnn_rep_apply(t->out, &t->group, &g, 1, y, turned);
        for (int k = 0; k < Y; k++) {
            double a = eqnn_at(fgx, i, k), b = turned[k];
            difference += (a - b) * (a - b);
            one += a * a;
            other += b * b;
        }
    }
    free(elements);
    return difference == 0 ? 0 : sqrt(difference) / (sqrt(one) + sqrt(other));
}

/* Test error of always saying the mean of the training examples. */
static double error_of_mean(const trial *t)
{
    int Y = t->s->task->out;
    double sum = 0;
    for (int k = 0; k < Y; k++) {
        double mean = 0;
        for (int i = 0; i < t->data.train; i++) mean += t->data.y[i * Y + k] / t->data.train;
        for (int i = 0; i < t->s->test; i++) {
            double e = t->data.y[(t->data.train + VALIDATION + i) * Y + k] - mean;
            sum += e * e;
        }
    }
    return sum / Y / t->s->test;
}

/* The examples of a trial: each trial has its own. */
static int make_examples(trial *t, uint64_t seed)
{
    const eqnn_task *k = t->s->task;
    examples *e = &t->data;
    e->train = t->m->n;
    e->all = t->m->n + VALIDATION + t->s->test;
    e->x = (double *)malloc((size_t)e->all * (size_t)k->in * sizeof(double));
    e->y = (double *)malloc((size_t)e->all * (size_t)k->out * sizeof(double));
    if (!e->x || !e->y) {
        eqnn_fail(t->c, "no memory for %d examples", e->all);
        return 0;
    }
    eqnn_task_draw(k, seed, 0, e->all, e->x, e->y);
    eqnn_task_scales(k, e->train, e->x, e->y, e->scale, e->mean, e->deviation);
    return 1;
}

/* The group's representations must have as many numbers as the task. */
static void choose_group(trial *t)
{
    const eqnn_task *k = t->s->task;
    t->group = eqnn_group_make(t->c, t->m->group);
    t->in = eqnn_rep_make(t->c, k->rep_in, t->group);
    t->out = eqnn_rep_make(t->c, k->rep_out, t->group);
    if (t->out && (eqnn_rep_size(t->in) != k->in || eqnn_rep_size(t->out) != k->out))
        eqnn_fail(t->c, "%s has %d numbers in %s; %s acts on %d dimensions, which makes %d",
                  k->name, k->in, k->rep_in, t->m->group, eqnn_group_dim(t->group),
                  eqnn_rep_size(t->in));
}

/* Everything of one trial; 0 on an error (in text) or Ctrl-C. */
static int run_trial(const settings *s, model *m, int number, eqnn_csv *log, char text[512])
{
    trial t = { .s = s, .m = m, .number = number, .best = INFINITY, .test = NAN };
    result *r = &m->trial[number];
    uint64_t seed = s->seed + (uint64_t)number;
    t.c = eqnn_make(&(eqnn_opts){ .seed = seed, .threads = s->threads, .device = s->device });
    choose_group(&t);
    int done = !eqnn_error(t.c) && make_examples(&t, seed) && train(&t, log);
    if (done) {
        r->mean = error_of_mean(&t);
        r->test = t.test;
        r->weights = eqnn_parameter_size(t.c);
        r->equivariance = equivariance_error(&t, &r->constant);
    }
    snprintf(text, 512, "%s", eqnn_error(t.c) ? eqnn_error(t.c) : "");
    free(t.data.x);
    free(t.data.y);
    eqnn_free(t.c);
    return done && !*text;
}

static void average_trials(const settings *s, model *m)
{
    double square = 0;
    m->average = (result){ .weights = m->trial[0].weights, .constant = m->trial[0].constant };
    for (int i = 0; i < s->trials; i++) {
        m->average.mean += m->trial[i].mean / s->trials;
        m->average.test += m->trial[i].test / s->trials;
        m->average.equivariance += m->trial[i].equivariance / s->trials;
    }
    for (int i = 0; i < s->trials; i++)
        square += (m->trial[i].test - m->average.test) * (m->trial[i].test - m->average.test);
    m->deviation = s->trials > 1 ? sqrt(square / (s->trials - 1)) : 0.0;
}

static void report_one(eqnn_ctx *c, const settings *s, const model *m)
{
    printf("\n%s, %d examples, %d epochs, %d trials\n\n", s->task->name, m->n, m->epochs,
           s->trials);
    eqnn_table *t = eqnn_table_make(c, "network|numbers|test MSE|+-|equivariance error");
    eqnn_table_cell(t, "the mean");
    eqnn_table_cell(t, "%d", s->task->out);
    eqnn_table_cell(t, "%.4g", m->average.mean);
    eqnn_table_cell(t, "-");
    eqnn_table_cell(t, "-");
    eqnn_table_cell(t, "%s", m->label);
    eqnn_table_cell(t, "%zu", m->average.weights);
    eqnn_table_cell(t, "%.4g", m->average.test);
    eqnn_table_cell(t, "%.2g", m->deviation);
    eqnn_table_cell(t, "%.1e", m->average.equivariance);
    eqnn_table_print(t, stdout);
    eqnn_table_free(t);
    if (m->average.constant)
        printf("\nIts output is the same for every input: %s leaves its layers no maps from one to "
               "the other.\n", m->group);
}

/* --- the paper's study --- */

enum { SIZES = 7 };
static const int published_sizes[SIZES] = { 30, 100, 300, 1000, 3000, 10000, 30000 };

/* The means of three trials that the authors plot in figure 5; group "": mlp and mlp+aug. */
static const struct published {
    const char *task, *group;
    int aug;
    double mse[SIZES];
} published[] = {
    { "inertia", "O(3)", 0, { 4.11, 1.44, .304, .136, .0282, .0180, .0141 } },
    { "inertia", "SO(3)", 0, { 6.91, 1.16, .316, .0604, .0291, .0185, .0153 } },
    { "inertia", "", 1, { 4.64, 1.79, .464, .130, .112, .112, .106 } },
    { "inertia", "", 0, { 13.4, 7.91, 4.94, 3.24, .840, .154, .112 } },
    { "o5", "O(5)", 0, { .152, .0408, .0344, .0170, .0310, .0130, .0273 } },
    { "o5", "SO(5)", 0, { .110, .0415, .0384, .0198, .0320, .0231, .0279 } },
    { "o5", "", 1, { .476, .397, .0936, .0633, .0889, .0702, .0672 } },
    { "o5", "", 0, { 28.1, 2.83, .248, .0892, .0623, .0616, .0622 } },
    { "particle", "Lorentz", 0, { .540, .00888, .00195, .000330, .000266, .000264, .000158 } },
    { "particle", "SO13p", 0, { .459, .0127, .00221, .000330, .000224, .000199, .000198 } },
    { "particle", "SO13", 0, { .511, .0147, .00258, .000369, .000273, .000212, .000187 } },
    { "particle", "", 1, { .627, .190, .0397, .0125, .0108, .0134, .0118 } },
    { "particle", "", 0, { .733, .733, .697, .364, .0504, .0166, .0120 } },
};

/* The groups that the paper has for the data, its own first. */
static const char *studied_groups(const eqnn_task *task)
{
    return !strcmp(task->name, "inertia") ? "O(3),SO(3)"
           : !strcmp(task->name, "o5") ? "O(5),SO(5)" : "Lorentz,SO13p,SO13";
}

/* The paper's errors of a network and a group, by whichever name; NULL: there are none. */
static const double *published_errors(eqnn_ctx *c, const settings *s, const model *m)
{
    for (size_t k = 0; k < sizeof published / sizeof *published; k++) {
        const struct published *p = &published[k];
        if (strcmp(p->task, s->task->name) || p->aug != m->aug) continue;
        if (m->plain && !*p->group) return p->mse;
        if (!m->plain && *p->group
            && eqnn_group_make(c, p->group) == eqnn_group_make(c, m->group)) return p->mse;
    }
    return NULL;
}

static double published_error(eqnn_ctx *c, const settings *s, const model *m)
{
    const double *mse = published_errors(c, s, m);
    for (int i = 0; mse && i < SIZES; i++)
        if (published_sizes[i] == m->n) return mse[i];
    return NAN;
}

static void report_all(eqnn_ctx *c, const settings *s, const model *m, int n)
{
    eqnn_table *t = eqnn_table_make(c, "network|examples|epochs|numbers|test MSE|+-|paper|"
                                       "of the mean|equivariance error");
    eqnn_csv *f = NULL;
    if (*s->folder)
        f = eqnn_csv_open(c, eqnn_path_in(c, s->folder, "summary.csv"),
                          "network,examples,epochs,numbers,test,deviation,paper,mean,equivariance",
                          0);
    printf("\n%s, %d trials\n\n", s->task->name, s->trials);
    for (int i = 0; i < n; i++) {
        const model *q = &m[i];
        double number[8] = { q->n, q->epochs, (double)q->average.weights, q->average.test,
                             q->deviation, published_error(c, s, q), q->average.mean,
                             q->average.equivariance };
        static const char *const format[8] = { "%.0f", "%.0f", "%.0f", "%.4g", "%.2g", "%.3g",
                                               "%.4g", "%.1e" };
        eqnn_table_cell(t, "%s%s", q->label, q->average.constant ? " (constant)" : "");
        for (int k = 0; k < 8; k++) eqnn_table_number(t, format[k], number[k]);
        eqnn_csv_row(f, q->label, 8, number);
    }
    eqnn_table_print(t, stdout);
    eqnn_table_free(t);
    eqnn_csv_close(f);
}

/* Validation errors of every trial of one model; of several, of the first trials with most
   examples. */
static void draw_losses(eqnn_ctx *c, const settings *s, const model *m, int n)
{
    eqnn_plot *plot = eqnn_plot_make(c, &(eqnn_plot_opts){ .title = s->task->name,
        .x_label = "epoch", .y_label = "validation MSE", .log_y = 1 });
    const char *log = eqnn_path_in(c, s->folder, "log.csv");
    int most = 0;
    for (int i = 0; i < n; i++)
        if (m[i].n > most) most = m[i].n;
    for (int i = 0; i < n; i++)
        for (int k = 0; k < (n > 1 ? 1 : s->trials) && m[i].n == most; k++)
            eqnn_plot_csv(plot, log, trial_name(c, &m[i], k), 1, 3, NULL);
    eqnn_plot_save(plot, eqnn_path_in(c, s->folder, "losses.svg"));
    eqnn_plot_free(plot);
}

/* Test error against the number of examples, a line for each network; the paper's dashed. */
static void draw_sizes(eqnn_ctx *c, const settings *s, const model *m, int n)
{
    eqnn_plot *plot = eqnn_plot_make(c, &(eqnn_plot_opts){ .title = s->task->name,
        .x_label = "training examples", .y_label = "test MSE (dashed: the paper's)", .log_x = 1,
        .log_y = 1, .width = 760, .height = 480 });
    double x[MOST_MODELS], y[MOST_MODELS], sizes[SIZES];
    int lines = 0;
    while (lines < n && m[lines].n == m[0].n) lines++;
    for (int k = 0; k < SIZES; k++) sizes[k] = published_sizes[k];
    for (int i = 0; i < lines; i++) {
        const double *paper = published_errors(c, s, &m[i]);
        char colour[8];
        int count = 0;
        for (int j = i; j < n; j += lines) x[count] = m[j].n, y[count++] = m[j].average.test;
        eqnn_plot_colour(0.9 * i / lines, colour);
        eqnn_plot_add(plot, m[i].label, count, x, y, &(eqnn_series_opts){ .colour = colour });
        if (paper)
            eqnn_plot_add(plot, NULL, SIZES, sizes, paper,
                          &(eqnn_series_opts){ .colour = colour, .dashed = 1, .size = 1.2 });
    }
    eqnn_plot_save(plot, eqnn_path_in(c, s->folder, "sizes.svg"));
    eqnn_plot_free(plot);
}

/* --- the program --- */

/* Of a single model the trials have no other names than their numbers. */
static void add_model(eqnn_ctx *c, const settings *s, model *m, int *n, const model *as)
{
    model *to = &m[*n];
    int k = 0;
    if (*n == MOST_MODELS) {
        eqnn_fail(c, "more than %d models", MOST_MODELS);
        return;
    }
    *to = *as;
    to->epochs = s->epochs ? s->epochs
                           : 900000 / to->n < 1000 ? (900000 + to->n - 1) / to->n : 1000;
    if (to->plain) snprintf(to->label, sizeof to->label, "mlp%s", to->aug ? ", augmented" : "");
    else snprintf(to->label, sizeof to->label, "emlp %s%s%s", to->group,
                  s->projected ? ", projected" : "", to->aug ? ", augmented" : "");
    snprintf(to->name, sizeof to->name, "%s, %d examples, ", to->label, to->n);
    snprintf(to->file, sizeof to->file, "%s %d ", to->label, to->n);
    for (int i = 0; to->file[i]; i++)
        if (isalnum((unsigned char)to->file[i]) || to->file[i] == ' ')
            to->file[k++] = (char)(to->file[i] == ' ' ? '_' : to->file[i]);
    to->file[k] = 0;
    for (int i = 0; i < *n; i++)
        if (!strcmp(m[i].file, to->file)) 
            eqnn_fail(c, "two models are %s with %d examples", to->label, to->n);
    ++*n;
}

/* A word of --network with so many examples: mlp and mlp+aug with the first group, emlp and
   emlp+aug with every one. */
static void add_word(eqnn_ctx *c, const settings *s, model *m, int *n, const char *word, int length,
                     int size)
{
    int name = (int)strcspn(word, ",+"), plain = name == 3 && !strncmp(word, "mlp", 3);
    int aug = length == name + 4 && !strncmp(word + name, "+aug", 4);
    if ((!plain && (name != 4 || strncmp(word, "emlp", 4))) || (length != name && !aug)) {
        eqnn_fail(c, "--network %s: there are emlp and mlp, emlp+aug and mlp+aug", s->networks);
        return;
    }
    const char *list = s->groups, *group;
    for (int k, i = 0; (k = eqnn_next_word(&list, &group)) > 0 && !(plain && i); i++) {
        model as = { .plain = plain, .aug = aug || s->aug, .n = size };
        if (k >= (int)sizeof as.group) eqnn_fail(c, "--group %s is too long", s->groups);
        snprintf(as.group, sizeof as.group, "%.*s", k, group);
        add_model(c, s, m, n, &as);
    }
}

/* Every number of examples, with every network and group. */
static int list_models(eqnn_ctx *c, const settings *s, model *m)
{
    const char *sizes = s->sizes, *size, *word;
    int n = 0;
    for (int k; (k = eqnn_next_word(&sizes, &size)) > 0 && !eqnn_error(c);) {
        char *end;
        long number = strtol(size, &end, 10);
        const char *list = s->networks;
        if (end != size + k || number < 1 || number > 1000000)
            eqnn_fail(c, "--n '%.*s' is not a whole number from 1 to 1000000", k, size);
        for (int length; (length = eqnn_next_word(&list, &word)) > 0 && !eqnn_error(c);)
            add_word(c, s, m, &n, word, length, (int)number);
    }
    if (n == 0) eqnn_fail(c, "--n, --network or --group is empty");
    if (n == 1) *m->name = *m->file = 0;
    return n;
}

static void report(eqnn_ctx *c, const settings *s, model *m, int n)
{
    for (int i = 0; i < n; i++) average_trials(s, &m[i]);
    if (*s->folder) draw_losses(c, s, m, n);
    if (*s->folder && m[0].n != m[n - 1].n) draw_sizes(c, s, m, n);
    if (n > 1) report_all(c, s, m, n);
    else report_one(c, s, m);
}

static void run(eqnn_ctx *c, const settings *s, model *m, int n)
{
    char text[512] = "";
    int done = 0, all = n * s->trials, k = s->trials;
    eqnn_csv *log = NULL;
    if (*s->folder && eqnn_make_folder(c, s->folder))
        log = eqnn_csv_open(c, eqnn_path_in(c, s->folder, "log.csv"),
                            "trial,epoch,train,validation,test", s->resume);
    for (int i = 0; i < all && !s->resume; i++) eqnn_run_forget(trial_path(c, s, &m[i / k], i % k));
    double start = eqnn_clock();
    while (done < all && !eqnn_error(c) && run_trial(s, &m[done / k], done % k, log, text)) done++;
    eqnn_csv_close(log);
    if (*text) eqnn_fail(c, "%s%s", m[done / k].name, text);
    if (done == all) {
        report(c, s, m, n);
        printf("\n%.1f seconds\n", eqnn_clock() - start);
    } else if (eqnn_interrupted()) {
        printf("interrupted%s\n", *s->folder ? "; the same command with --resume continues" : "");
    }
}

static const eqnn_option options[] = {
    { "dataset", "inertia", "inertia, o5 or particle" },
    { "network", "emlp", "emlp or mlp; with transformed examples emlp+aug, mlp+aug; a list" },
    { "group", "", "whose symmetry, or a list; default that of the dataset" },
    { "n", "300", "training examples, or a list" },
    { "study", "off", "the paper's networks, groups and sizes, three trials" },
    { "ch", "384", "numbers in a hidden layer" },
    { "layers", "3", "hidden layers" },
    { "aug", "off", "show every example transformed by a random group element" },
    { "trials", "1", "runs with other examples and first weights; the paper has 3" },
    { "projected", "off", "any weights, projected at every call, as the paper's code has it" },
    { "rate", "3e-3", "of Adam" },
    { "average", "0", "decay of the moving average of weights that is judged then" },
    { "test", "5000", "test examples" },
    { "epochs", "0", "0: min(900000/n, 1000), as the paper has it" },
    { "seed", "2021", "of the first trial" },
    { "out", "build/emlp", "folder for log, picture and models; empty: none" },
    { "data", NULL, NULL },
    { NULL, NULL, NULL }
};

/* What --resume needs to be told as before: for one model; for several, whose files have names. */
static const char repeated[] = "dataset,network,group,n,aug,projected,rate,average,test,seed";
static const char repeated_by_all[] = "dataset,projected,rate,average,test,seed";

static void understand(settings *s, eqnn_args *a)
{
    eqnn_opts o = eqnn_args_context(a);
    int study = eqnn_args_on(a, "study");
    s->networks = eqnn_args_text(a, "network");
    s->groups = eqnn_args_text(a, "group");
    s->sizes = eqnn_args_text(a, "n");
    s->trials = eqnn_args_int(a, "trials", 1, MOST_TRIALS);
    if (study && !eqnn_args_given(a, "network")) s->networks = "mlp,mlp+aug,emlp";
    if (study && !eqnn_args_given(a, "n")) s->sizes = "30,100,300,1000,3000,10000,30000";
    if (study && !eqnn_args_given(a, "trials")) s->trials = 3;
    s->folder = eqnn_args_text(a, "out");
    s->channels = eqnn_args_int(a, "ch", 1, 100000);
    s->layers = eqnn_args_int(a, "layers", 1, 50);
    s->epochs = eqnn_args_int(a, "epochs", 0, 1000000);
    s->aug = eqnn_args_on(a, "aug");
    s->projected = eqnn_args_on(a, "projected");
    s->resume = eqnn_args_on(a, "resume");
    s->test = eqnn_args_int(a, "test", 100, 1000000);
    s->rate = eqnn_args_within(a, "rate", 1e-12, 1e3);
    s->average = eqnn_args_number(a, "average");
    const char *list = s->networks, *word; /* emlp or emlp+aug */
    int some = 0;
    while (eqnn_next_word(&list, &word) > 0) some |= !strncmp(word, "emlp", 4);
    eqnn_args_only(a, some, "projected", "emlp");
    s->seed = o.seed;
    s->threads = o.threads;
    s->device = o.device;
}

/* What is asked for, once there is a context. */
static void study(eqnn_ctx *c, settings *s, eqnn_args *a)
{
    static model m[MOST_MODELS];
    s->task = eqnn_task_find(c, eqnn_args_text(a, "dataset"));
    if (!s->task) return;
    if (!*s->groups) s->groups = eqnn_args_on(a, "study") ? studied_groups(s->task)
                                                          : s->task->group;
    if (s->resume && !*s->folder) eqnn_fail(c, "--resume needs the folder of the run: --out");
    int n = list_models(c, s, m);
    s->repeated = eqnn_args_settings(a, n > 1 ? repeated_by_all : repeated);
    if (*a->error) eqnn_fail(c, "%s", a->error);
    if (!eqnn_error(c)) run(c, s, m, n);
}

int main(int argc, char **argv)
{
    settings s = { 0 };
    eqnn_args a;
    int go = eqnn_args_read(&a, argc, argv, "Test error of equivariant networks and others.",
                            options);
    if (go > 0) understand(&s, &a);
    eqnn_ctx *c = eqnn_program_start(&a, &(eqnn_opts){ .device = s.device });
    if (c) study(c, &s, &a);
    return eqnn_program_end(&a, c);
}
