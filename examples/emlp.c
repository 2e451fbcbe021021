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

   The folder of --out gets log.csv, losses.svg and trialK.safetensors; with --resume a run that was
   stopped goes on as if it had not been.

   "make test" runs it with
      --n 50 --ch 64 --epochs 2 --test 100 --trials 2 */
#define EQNN_IMPLEMENTATION
#include "eqnn.h"
#include "eqnn_data.h"
#include "eqnn_groups.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { VALIDATION = 1000, TEST = 5000, BATCH = 500 };

/* One problem's numbers: training examples, then those for validation, then those of the test. */
typedef struct examples {
    int train, all;
    double *x, *y;                        /* [all, task.in], [all, task.out]                */
    double scale[64], mean[16], deviation[16]; /* of the training examples                 */
} examples;

typedef struct settings {
    const eqnn_task *task;
    const char *network, *group, *folder, *device, *repeated; /* by --resume */
    int n, channels, layers, epochs, trials, aug, resume, test, threads, projected;
    double rate, average;
    uint64_t seed;
} settings;

/* What one trial works with. */
typedef struct trial {
    const settings *s;
    eqnn_ctx *c;
    const eqnn_group *group;
    const eqnn_rep *in, *out;
    examples data;
    eqnn_run *run;
    int number;
    double best, test; /* smallest validation error, and the test error at that moment */
} trial;

typedef struct result { double mean, test, equivariance; size_t weights; int constant; } result;

/* --- the networks --- */

static eqnn_tensor *network(const trial *t, eqnn_tensor *x)
{
    const settings *s = t->s;
    if (!strcmp(s->network, "mlp")) {
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
    if (t->s->aug) {
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

static const char *trial_name(eqnn_ctx *c, int number)
{
    return eqnn_format(c, "trial %d", number + 1);
}

static const char *trial_path(eqnn_ctx *c, const settings *s, int number)
{
    return eqnn_path_in(c, s->folder, "trial%d.safetensors", number);
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
    eqnn_csv_text(log, trial_name(t->c, t->number));
    eqnn_csv_number(log, epoch);
    eqnn_csv_number(log, eqnn_average_value(&t->run->loss));
    eqnn_csv_number(log, validation);
    eqnn_csv_number(log, t->test);
    eqnn_csv_end(log);
}

/* Weights come into being by a look at one example; then the checkpoint may fill them. */
static void begin(trial *t)
{
    const settings *s = t->s;
    const int first[1] = { 0 };
    eqnn_tensor *x, *y;
    int every = (s->epochs + 99) / 100;
    eqnn_run_opts o = { .batch = s->n < BATCH ? s->n : BATCH, .epochs = s->epochs,
                        .looks = (double)s->epochs / every, .resume = s->resume,
                        .settings = s->repeated, .path = trial_path(t->c, s, t->number) };
    eqnn_mark mark = eqnn_mark_make(t->c);
    batch_of(t, first, 1, NULL, &x, &y);
    eqnn_rewind(mark, predict(t, x));
    t->run = eqnn_run_make(t->c, trial_name(t->c, t->number), s->n, &o);
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
    e->train = t->s->n;
    e->all = t->s->n + VALIDATION + t->s->test;
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
    t->group = eqnn_group_make(t->c, t->s->group);
    t->in = eqnn_rep_make(t->c, k->rep_in, t->group);
    t->out = eqnn_rep_make(t->c, k->rep_out, t->group);
    if (t->out && (eqnn_rep_size(t->in) != k->in || eqnn_rep_size(t->out) != k->out))
        eqnn_fail(t->c, "%s has %d numbers in %s; %s acts on %d dimensions, which makes %d",
                  k->name, k->in, k->rep_in, t->s->group, eqnn_group_dim(t->group),
                  eqnn_rep_size(t->in));
}

/* Everything of one trial; 0 on an error (in text) or Ctrl-C. */
static int run_trial(const settings *s, int number, eqnn_csv *log, result *r, char text[512])
{
    trial t = { .s = s, .number = number, .best = INFINITY, .test = NAN };
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

static void report(eqnn_ctx *c, const settings *s, const result *r)
{
    double mean = 0, test = 0, square = 0, equivariance = 0;
    for (int i = 0; i < s->trials; i++) {
        mean += r[i].mean / s->trials;
        test += r[i].test / s->trials;
        equivariance += r[i].equivariance / s->trials;
    }
    for (int i = 0; i < s->trials; i++) square += (r[i].test - test) * (r[i].test - test);
    printf("\n%s, %d examples, %d epochs, %d trials\n\n", s->task->name, s->n, s->epochs,
           s->trials);
    eqnn_table *t = eqnn_table_make(c, "network|numbers|test MSE|+-|equivariance error");
    eqnn_table_cell(t, "the mean");
    eqnn_table_cell(t, "%d", s->task->out);
    eqnn_table_cell(t, "%.4g", mean);
    eqnn_table_cell(t, "-");
    eqnn_table_cell(t, "-");
    if (!strcmp(s->network, "mlp")) eqnn_table_cell(t, "mlp%s", s->aug ? ", augmented" : "");
    else eqnn_table_cell(t, "emlp %s%s%s", s->group, s->projected ? ", projected" : "",
                         s->aug ? ", augmented" : "");
    eqnn_table_cell(t, "%zu", r[0].weights);
    eqnn_table_cell(t, "%.4g", test);
    eqnn_table_cell(t, "%.2g", s->trials > 1 ? sqrt(square / (s->trials - 1)) : 0.0);
    eqnn_table_cell(t, "%.1e", equivariance);
    eqnn_table_print(t, stdout);
    eqnn_table_free(t);
    if (r[0].constant)
        printf("\nIts output is the same for every input: %s leaves its layers no maps from one to "
               "the other.\n", s->group);
}

static void draw(eqnn_ctx *c, const settings *s)
{
    eqnn_plot *plot = eqnn_plot_make(c, &(eqnn_plot_opts){ .title = s->task->name,
        .x_label = "epoch", .y_label = "validation MSE", .log_y = 1 });
    const char *log = eqnn_path_in(c, s->folder, "log.csv");
    for (int i = 0; i < s->trials; i++) eqnn_plot_csv(plot, log, trial_name(c, i), 1, 3, NULL);
    eqnn_plot_save(plot, eqnn_path_in(c, s->folder, "losses.svg"));
    eqnn_plot_free(plot);
}

static void run(eqnn_ctx *c, const settings *s)
{
    static result r[100];
    char text[512] = "";
    int done = 0;
    eqnn_csv *log = NULL;
    if (*s->folder && eqnn_make_folder(c, s->folder))
        log = eqnn_csv_open(c, eqnn_path_in(c, s->folder, "log.csv"),
                            "trial,epoch,train,validation,test", s->resume);
    for (int i = 0; i < s->trials && !s->resume; i++) eqnn_run_forget(trial_path(c, s, i));
    double start = eqnn_clock();
    while (done < s->trials && !eqnn_error(c) && run_trial(s, done, log, &r[done], text)) done++;
    eqnn_csv_close(log);
    if (*text) eqnn_fail(c, "%s", text);
    if (done == s->trials && *s->folder) draw(c, s);
    if (done == s->trials) {
        report(c, s, r);
        printf("\n%.1f seconds\n", eqnn_clock() - start);
    } else if (eqnn_interrupted()) {
        printf("interrupted; the same command with --resume continues\n");
    }
}

int main(int argc, char **argv)
{
    static const eqnn_option own[] = {
        { "dataset", "inertia", "inertia, o5 or particle" },
        { "network", "emlp", "emlp or mlp" },
        { "group", "", "whose symmetry; default that of the dataset" },
        { "n", "300", "training examples" },
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
    eqnn_args a;
    eqnn_args_read(&a, argc, argv, "Test error of equivariant networks and others.", own);
    eqnn_opts o = eqnn_args_context(&a);
    settings s = { .network = eqnn_args_text(&a, "network"), .group = eqnn_args_text(&a, "group"),
                   .folder = eqnn_args_text(&a, "out"), .n = eqnn_args_int(&a, "n", 1, 1000000),
                   .channels = eqnn_args_int(&a, "ch", 1, 100000),
                   .layers = eqnn_args_int(&a, "layers", 1, 50),
                   .epochs = eqnn_args_int(&a, "epochs", 0, 1000000),
                   .trials = eqnn_args_int(&a, "trials", 1, 100), .aug = eqnn_args_on(&a, "aug"),
                   .projected = eqnn_args_on(&a, "projected"),
                   .resume = eqnn_args_on(&a, "resume"), .test = eqnn_args_int(&a, "test", 100,
                   1000000), .rate = eqnn_args_number(&a, "rate"),
                   .average = eqnn_args_number(&a, "average"), .seed = o.seed,
                   .threads = o.threads, .device = o.device,
                   .repeated = eqnn_args_settings(&a, "dataset,network,group,n,aug,projected,rate,"
                                                      "average,test,seed") };
    eqnn_ctx *c = eqnn_program_start(&a, &(eqnn_opts){ .device = o.device });
    if (c) s.task = eqnn_task_find(c, eqnn_args_text(&a, "dataset"));
    if (c && strcmp(s.network, "mlp") && strcmp(s.network, "emlp"))
        eqnn_fail(c, "--network %s: there are emlp and mlp", s.network);
    if (c && s.resume && !*s.folder) eqnn_fail(c, "--resume needs the folder of the run: --out");
    if (s.task && !*s.group) s.group = s.task->group;
    if (s.epochs == 0) s.epochs = 900000 / s.n < 1000 ? (900000 + s.n - 1) / s.n : 1000;
    if (!eqnn_error(c)) run(c, &s);
    return eqnn_program_end(&a, c);
}
