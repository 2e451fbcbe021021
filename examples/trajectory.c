/* trajectory.c - can an equivariant network learn how a chain of twelve beads moves?

   The chain obeys Newton: bonds, angles, a weak attraction, no noise (eqnn_chain in eqnn_data.h).
   Each sample is the chain now, and the model says where every bead is one frame later. You will
   see a table: models of three kinds beside three predictors that learn nothing at all.

      mlp         an affine map of all coordinates (three linear layers): knows no symmetry
      small       a polynomial in the edge vectors, equivariant, no nonlinearity
      large       an equivariant network of gated convolutions

   Positions at one moment do not hold the velocities, so with --history 1 the best possible
   prediction is hardly better than "nothing moves", whatever the correlations say. With --history 2
   (the default) a model is given the previous displacement and asked for its change:

      x(t+1) = 2 x(t) - x(t-1) + a

   and "repeat last displacement" (a = 0) is what it has to beat. Errors are in units of the data,
   per coordinate; the equivariance error is the largest |f(R x) - R f(x)| over random rotations and
   reflections of a random cloud of beads.

      trajectory --history 1 --schedule constant --epochs 1000    as in the e3nn trajectory study
      trajectory --rollout 200 --epochs 200                       more training, a longer roll-out

   TEST: --epochs 2 --frames 300 --hidden 4x0e+4x1o --layers 1 --rollout 5
*/

#define EQNN_IMPLEMENTATION
#include "eqnn_data.h"

/* ------------------------------------------------------------------------------------------------
   What is studied
   ---------------------------------------------------------------------------------------------- */

typedef struct study {
    /* asked for */
    int history, to_position, bonds, layers, basis, epochs, batch, shuffle, constant_rate, rollout,
        resume;
    double rate, radius;
    const char *data, *out, *models, *hidden;
    eqnn_opts context;
    /* the data: sample t leads from frame t to frame t+1 */
    eqnn_ctx *c;
    int frames, beads, coordinates;  /* coordinates of a frame: 3 * beads               */
    double *pos;                     /* [frames][coordinates]                           */
    int first, split, last;          /* training first..split-1, test split..last-1     */
    double mean[3], drift[3];        /* of position and displacement, over training     */
    double scale, speed;             /* root mean square of targets and displacements   */
    /* a batch */
    int *example;                    /* [batch*beads] which frame a bead belongs to     */
    double *before, *now, *next;     /* [batch][coordinates]                            */
    eqnn_real *edge;                 /* [batch*beads*(beads-1)][3]                      */
} study;

static const double *frame(const study *s, int t)
{
    return s->pos + (size_t)(t > 0 ? t : 0) * (size_t)s->coordinates;
}

/* What a prediction starts from; the model's part is added: x(t), 2 x(t) - x(t-1), or nothing. */
static double base(const study *s, double before, double now)
{
    return s->to_position ? 0 : s->history == 2 ? 2 * now - before : now;
}

/* ------------------------------------------------------------------------------------------------
   Data
   ---------------------------------------------------------------------------------------------- */

/* The array "arr" [frames, beads, 2 or 3] of an npz file; planar data gets z = 0. */
static int load(study *s)
{
    eqnn_npz *z = eqnn_npz_open(s->c, s->data);
    const eqnn_array *a = eqnn_npz_need(z, "arr", 3);
    int width = a ? (int)a->shape[2] : 0;
    int large_enough = a && a->shape[0] >= 10 && a->shape[1] >= 1 && a->count < 300000000;
    if (a && (width < 2 || width > 3 || !large_enough))
        eqnn_fail(s->c, "'%s': arr is [%lld, %lld, %lld]; needed: 10 frames or more, beads, 2 or 3",
                  s->data, (long long)a->shape[0], (long long)a->shape[1], (long long)a->shape[2]);
    if (!eqnn_error(s->c)) {
        s->frames = (int)a->shape[0];
        s->beads = (int)a->shape[1];
        s->pos = calloc(a->count / (size_t)width * 3, sizeof *s->pos);
        for (size_t i = 0; s->pos && i < a->count; i++)
            s->pos[i / (size_t)width * 3 + i % (size_t)width] = a->values[i];
    }
    eqnn_npz_close(z);
    return !eqnn_error(s->c);
}

static int generate(study *s)
{
    eqnn_chain_opts o = { .frames = s->frames };
    s->beads = 12;
    s->pos = malloc((size_t)s->frames * 36 * sizeof *s->pos);
    return s->pos && eqnn_chain(s->c, &o, s->pos, NULL);
}

/* Means and sizes over the training samples; they are what a model is told about units. */
static void measure(study *s)
{
    double targets = 0, steps = 0, n = (double)(s->split - s->first) * s->beads;
    for (int t = s->first; t < s->split; t++) {
        const double *x = frame(s, t);
        for (int i = 0; i < s->coordinates; i++) {
            double before = frame(s, t - 1)[i], next = frame(s, t + 1)[i];
            double target = next - base(s, before, x[i]);
            s->mean[i % 3] += x[i] / n;
            s->drift[i % 3] += (next - x[i]) / n;
            targets += target * target / (3 * n);
            steps += (x[i] - before) * (x[i] - before) / (3 * n);
        }
    }
    s->scale = targets > 0 ? sqrt(targets) : 1;
    s->speed = steps > 0 ? sqrt(steps) : 1;
}

/* Reads or makes the frames; the first 80 % of the samples are for training, the rest for the
   test. */
static int prepare(study *s)
{
    if (!(*s->data ? load(s) : generate(s))) return 0;
    s->coordinates = 3 * s->beads;
    s->first = s->history - 1;
    s->last = s->frames - 1;
    s->split = (int)(0.8 * s->last);
    size_t beads = (size_t)s->batch * (size_t)s->beads, edges = beads * (size_t)s->beads;
    s->example = malloc(beads * sizeof *s->example);
    s->before = malloc(3 * beads * sizeof *s->before);
    s->now = malloc(3 * beads * sizeof *s->now);
    s->next = malloc(3 * beads * sizeof *s->next);
    s->edge = malloc(3 * edges * sizeof *s->edge);
    if (!s->pos || !s->example || !s->before || !s->now || !s->next || !s->edge) {
        eqnn_fail(s->c, "no memory for %d frames of %d beads", s->frames, s->beads);
        return 0;
    }
    for (int i = 0; i < s->batch * s->beads; i++) s->example[i] = i / s->beads;
    measure(s);
    return 1;
}

static void release(study *s)
{
    free(s->pos);
    free(s->example);
    free(s->before);
    free(s->now);
    free(s->next);
    free(s->edge);
    eqnn_free(s->c);
}

/* ------------------------------------------------------------------------------------------------
   Predictors: anything that says where the beads will be. Trivial ones need no context.
   ---------------------------------------------------------------------------------------------- */

typedef struct predictor predictor;
/* pos [beads of all frames, 3] about the origin, 1x1o; step: the previous displacement or NULL. The
   result is the target in units of its root mean square. */
typedef eqnn_tensor *(*network)(const study *s, eqnn_tensor *pos, eqnn_tensor *step,
                                const eqnn_graph *g);

struct predictor {
    const char *name;
    void (*predict)(predictor *p, int n, const double *before, const double *now, double *next);
    network net;
    const study *s;
    eqnn_ctx *c;
    /* what came out */
    double train, test, correlation[4], error, relative, seconds;
    double *far, *energy;  /* [rollout+1] distance from the truth, relative change of energy */
    double *run;           /* [rollout+1][coordinates] one roll-out */
};

static void no_motion(predictor *p, int n, const double *before, const double *now, double *next)
{
    (void)before;
    memcpy(next, now, (size_t)n * (size_t)p->s->coordinates * sizeof *next);
}

static void mean_drift(predictor *p, int n, const double *before, const double *now, double *next)
{
    (void)before;
    for (int i = 0; i < n * p->s->coordinates; i++) next[i] = now[i] + p->s->drift[i % 3];
}

static void repeat_last(predictor *p, int n, const double *before, const double *now, double *next)
{
    for (int i = 0; i < n * p->s->coordinates; i++) next[i] = 2 * now[i] - before[i];
}

/* An affine map of everything: no activation between the layers. */
static eqnn_tensor *mlp(const study *s, eqnn_tensor *pos, eqnn_tensor *step, const eqnn_graph *g)
{
    eqnn_ctx *c = eqnn_context(pos);
    int n = g ? g->examples : 0;
    eqnn_tensor *x = eqnn_reshape(eqnn_as(pos, NULL), n, s->coordinates);
    if (step) x = eqnn_concat(x, eqnn_reshape(eqnn_as(step, NULL), n, s->coordinates));
    x = eqnn_mlp(x, "", eqnn_format(c, "64,64,%d", s->coordinates),
                 &(eqnn_mlp_opts){ .linear = 1 });
    return eqnn_as(eqnn_reshape(x, eqnn_rows(pos), 3), eqnn_irreps_make(c, "1x1o"));
}

/* What the beads know besides their places: a constant 1 and the previous displacement. */
static eqnn_tensor *features(eqnn_tensor *step)
{
    if (!step) return NULL;
    eqnn_ctx *c = eqnn_context(step);
    eqnn_tensor *one = eqnn_full(c, eqnn_rows(step), 1, 1);
    return eqnn_concat(eqnn_as(one, eqnn_irreps_make(c, "1x0e")), step);
}

static eqnn_tensor *small(const study *s, eqnn_tensor *pos, eqnn_tensor *step, const eqnn_graph *g)
{
    (void)s;
    eqnn_polynomial_opts o = { .mid = "8x0e+8x0o+16x1e+16x1o+8x2e+8x2o", .out = "1x1o",
                               .neighbours = 11, .x = features(step) };
    return eqnn_polynomial(pos, g, "", &o);
}

/* For each edge: are its beads next to each other on the chain, one apart, or further? */
static eqnn_tensor *along_the_chain(const study *s, eqnn_tensor *pos, const eqnn_graph *g)
{
    for (int e = 0; g && e < g->edges; e++) {
        int apart = abs(g->source[e] - g->target[e]);
        for (int k = 0; k < 3; k++) s->edge[3 * e + k] = k == (apart > 2 ? 2 : apart - 1);
    }
    return g ? eqnn_from(eqnn_context(pos), g->edges, 3, s->edge) : NULL;
}

static eqnn_tensor *large(const study *s, eqnn_tensor *pos, eqnn_tensor *step, const eqnn_graph *g)
{
    eqnn_network_opts o = { .hidden = s->hidden, .out = "1x1o", .layers = s->layers,
                            .radius = s->radius, .basis = s->basis, .neighbours = 11 };
    if (s->bonds) o.edge_scalars = along_the_chain(s, pos, g);
    return eqnn_network(features(step), NULL, pos, g, "", &o);
}

/* A network's view of n frames: places about the mean of the training data (a shift that no
   equivariant model notices), displacements of size 1, all beads packed in one graph. */
static eqnn_tensor *forward(predictor *p, int n, const double *before, const double *now)
{
    const study *s = p->s;
    int rows = n * s->beads;
    const eqnn_irreps *vector = eqnn_irreps_make(p->c, "1x1o");
    double *x = s->next;
    for (int i = 0; i < 3 * rows; i++) x[i] = now[i] - s->mean[i % 3];
    eqnn_tensor *pos = eqnn_as(eqnn_from_double(p->c, rows, 3, x), vector), *step = NULL;
    for (int i = 0; i < 3 * rows; i++) x[i] = (now[i] - before[i]) / s->speed;
    if (s->history == 2) step = eqnn_as(eqnn_from_double(p->c, rows, 3, x), vector);
    eqnn_graph_opts o = { .example = s->example, .examples = n };
    return p->net(s, pos, step, eqnn_radius_graph(pos, s->radius, &o));
}

static void by_network(predictor *p, int n, const double *before, const double *now, double *next)
{
    int recording = eqnn_recording(p->c, 0), size = n * p->s->coordinates;
    eqnn_tensor *y = forward(p, n, before, now);
    for (int i = 0; i < size; i++)
        next[i] = base(p->s, before[i], now[i]) + p->s->scale * eqnn_at(y, i / 3, i % 3);
    eqnn_recording(p->c, recording);
    eqnn_reset(p->c);
}

/* ------------------------------------------------------------------------------------------------
   Scores
   ---------------------------------------------------------------------------------------------- */

/* The four numbers of a frame whose correlations the study quotes: the mean of all coordinates, the
   mean of bead 1, x of bead 7, y of the last bead. */
static void series(const study *s, const double *x, double out[4])
{
    int n = s->coordinates, seventh = s->beads > 6 ? 6 : s->beads - 1;
    out[0] = 0;
    for (int i = 0; i < n; i++) out[0] += x[i] / n;
    out[1] = (x[0] + x[1] + x[2]) / 3;
    out[2] = x[3 * seventh];
    out[3] = x[n - 2];
}

/* Copies samples t, t+1, ... into the batch; returns how many of those before end fit. */
static int take(const study *s, int t, int end)
{
    int n = end - t < s->batch ? end - t : s->batch;
    size_t size = (size_t)s->coordinates;
    for (int i = 0; i < n; i++) {
        memcpy(s->before + (size_t)i * size, frame(s, t + i - 1), size * sizeof(double));
        memcpy(s->now + (size_t)i * size, frame(s, t + i), size * sizeof(double));
    }
    return n;
}

/* The mean squared error over samples from..end-1; R^2 of the four series, or correlation NULL. */
static double evaluate(predictor *p, int from, int end, double *correlation)
{
    const study *s = p->s;
    eqnn_score all = { 0 }, four[4] = { { 0 } };
    double *next = malloc((size_t)s->batch * (size_t)s->coordinates * sizeof *next);
    double truth[4], guess[4];
    if (!next) eqnn_fail(s->c, "no memory");
    for (int t = from, n; next && t < end; t += n) {
        n = take(s, t, end);
        p->predict(p, n, s->before, s->now, next);
        eqnn_score_add(&all, (size_t)(n * s->coordinates), frame(s, t + 1), next);
        for (int i = 0; correlation && i < n; i++) {
            series(s, frame(s, t + i + 1), truth);
            series(s, next + i * s->coordinates, guess);
            for (int k = 0; k < 4; k++) eqnn_score_add(&four[k], 1, &truth[k], &guess[k]);
        }
    }
    for (int k = 0; correlation && k < 4; k++) correlation[k] = eqnn_score_r2(&four[k]);
    free(next);
    return eqnn_score_mse(&all);
}

static eqnn_tensor *one_cloud(eqnn_tensor *const *x, int n, void *user)
{
    predictor *p = user;
    return p->net(p->s, x[0], n > 1 ? x[1] : NULL, eqnn_radius_graph(x[0], p->s->radius, NULL));
}

/* Both errors of one random cloud of beads under ten random rotations and reflections. */
static void check_symmetry(predictor *p)
{
    const study *s = p->s;
    const eqnn_irreps *vector = eqnn_irreps_make(p->c, "1x1o");
    eqnn_tensor *x[2] = { eqnn_as(eqnn_normal(p->c, "cloud", s->beads, 3), vector),
                          eqnn_as(eqnn_normal(p->c, "steps", s->beads, 3), vector) };
    p->relative = eqnn_check_equivariance(one_cloud, x, s->history, p, 10, &p->error);
    p->error *= s->scale;
    eqnn_reset(p->c);
}

/* ------------------------------------------------------------------------------------------------
   Training
   ---------------------------------------------------------------------------------------------- */

/* Where a run stands; kept in the model's file, so that a run can stop between any two batches. */
typedef struct progress {
    int epoch, batch;
    eqnn_average loss;   /* of this epoch so far     */
    double seconds;      /* spent on training so far */
} progress;

static const char *model_path(const predictor *p)
{
    static char path[1024];
    snprintf(path, sizeof path, "%s/%s.safetensors", p->s->out, p->name);
    return path;
}

static void save(predictor *p, const progress *at)
{
    char text[160];
    snprintf(text, sizeof text, "%d %d %.17g %.17g %.17g", at->epoch, at->batch, at->loss.weight,
             at->loss.value, at->seconds);
    if (*p->s->out && eqnn_note(p->c, "progress", text)) eqnn_save(p->c, model_path(p));
}

/* A model that was not reached before has no file yet and begins now. */
static void resume(predictor *p, progress *at)
{
    FILE *f = fopen(model_path(p), "rb");
    if (!f) return;
    fclose(f);
    const char *text = eqnn_load(p->c, model_path(p), NULL) ? eqnn_noted(p->c, "progress") : NULL;
    if (!text || sscanf(text, "%d %d %lf %lf %lf", &at->epoch, &at->batch, &at->loss.weight,
                        &at->loss.value, &at->seconds) != 5)
        eqnn_fail(p->c, "'%s' does not say how far the run had come", model_path(p));
}

/* One optimizer step on the samples listed; returns the loss in units of the data. */
static double learn(predictor *p, eqnn_adam *adam, int n, const int *samples)
{
    const study *s = p->s;
    size_t size = (size_t)s->coordinates;
    for (int i = 0; i < n; i++) {
        memcpy(s->before + (size_t)i * size, frame(s, samples[i] - 1), size * sizeof(double));
        memcpy(s->now + (size_t)i * size, frame(s, samples[i]), size * sizeof(double));
    }
    eqnn_tensor *y = forward(p, n, s->before, s->now);
    for (int i = 0; i < n * s->coordinates; i++) {
        double next = frame(s, samples[i / s->coordinates] + 1)[i % s->coordinates];
        s->next[i] = (next - base(s, s->before[i], s->now[i])) / s->scale;
    }
    eqnn_tensor *target = eqnn_from_double(p->c, n * s->beads, 3, s->next);
    eqnn_tensor *loss = eqnn_mse(eqnn_as(y, NULL), target);
    double value = eqnn_value(loss) * s->scale * s->scale;
    eqnn_backward(loss);
    eqnn_adam_step(adam);
    eqnn_reset(p->c);
    return value;
}

/* From batch at->batch to the end of the epoch, or until Ctrl-C. 1 when the epoch is complete. */
static int run_epoch(predictor *p, eqnn_adam *adam, eqnn_batches *b, progress *at,
                     eqnn_progress *bar)
{
    const study *s = p->s;
    int total = eqnn_batches_count(b), n, skip = at->batch;
    const int *samples;
    eqnn_schedule rate = { .kind = s->constant_rate ? EQNN_CONSTANT : EQNN_COSINE, .rate = s->rate,
                           .total = (int64_t)s->epochs * total };
    double start = eqnn_clock();
    for (eqnn_batches_start(b, at->epoch); (n = eqnn_batches_next(b, &samples)) > 0;) {
        if (skip-- > 0) continue;
        if (eqnn_interrupted() || eqnn_error(p->c)) break;
        eqnn_adam_rate(adam, eqnn_schedule_rate(&rate, (int64_t)at->epoch * total + at->batch));
        eqnn_average_add(&at->loss, learn(p, adam, n, samples), 1);
        at->batch++;
        eqnn_progress_show(bar, (int64_t)at->epoch * total + at->batch, "epoch %d  train %.2e",
                           at->epoch + 1, at->loss.value);
    }
    at->seconds += eqnn_clock() - start;
    return n == 0 && !eqnn_error(p->c);
}

/* A line of the log, and the state for the next epoch. */
static void end_epoch(predictor *p, eqnn_csv *log, progress *at)
{
    p->test = evaluate(p, p->s->split, p->s->last, NULL);
    eqnn_csv_text(log, p->name);
    eqnn_csv_number(log, ++at->epoch);
    eqnn_csv_number(log, eqnn_average_value(&at->loss));
    eqnn_csv_number(log, p->test);
    eqnn_csv_number(log, at->seconds / at->epoch);
    eqnn_csv_end(log);
    at->batch = 0;
    memset(&at->loss, 0, sizeof at->loss);
}

static void run_epochs(predictor *p, eqnn_adam *adam, eqnn_batches *b, eqnn_csv *log, progress *at)
{
    int total = eqnn_batches_count(b);
    double saved = eqnn_clock();
    eqnn_progress bar;
    eqnn_progress_start(&bar, stderr, p->name, (int64_t)p->s->epochs * total,
                        (int64_t)at->epoch * total + at->batch);
    int changed = at->epoch < p->s->epochs;
    while (at->epoch < p->s->epochs && run_epoch(p, adam, b, at, &bar)) {
        end_epoch(p, log, at);
        if (eqnn_clock() - saved < 10) continue;
        save(p, at);
        saved = eqnn_clock();
    }
    eqnn_progress_end(&bar);
    if (changed) save(p, at);
    p->seconds = at->seconds / (at->epoch > 0 ? at->epoch : 1);
}

static void train(predictor *p, eqnn_csv *log)
{
    const study *s = p->s;
    progress at = { 0 };
    int count = s->split - s->first, *samples = malloc((size_t)(count + 1) * sizeof *samples);
    for (int i = 0; samples && i < count; i++) samples[i] = s->first + i;
    p->test = NAN;
    if (s->resume) resume(p, &at);
    eqnn_adam *adam = eqnn_adam_make(p->c, &(eqnn_adam_opts){ .rate = s->rate });
    eqnn_batches *b = NULL;
    if (samples) b = eqnn_batches_make(p->c, count, samples, s->batch, s->shuffle);
    if (b) run_epochs(p, adam, b, log, &at);
    else eqnn_fail(p->c, "no memory for %d samples", count);
    eqnn_batches_free(b);
    free(samples);
}

/* ------------------------------------------------------------------------------------------------
   Roll-outs: predictions are fed back, from several moments of the test at once.
   ---------------------------------------------------------------------------------------------- */

/* Energy of the motion about the centre of mass; the velocity is (next - before) / 2. */
static double energy(const study *s, const double *before, const double *now, const double *next)
{
    eqnn_chain_opts o = { .beads = s->beads };
    double kinetic = 0, mean[3] = { 0 };
    for (int i = 0; i < s->coordinates; i++) mean[i % 3] += (next[i] - before[i]) / 2 / s->beads;
    for (int i = 0; i < s->coordinates; i++) {
        double v = (next[i] - before[i]) / 2 - mean[i % 3];
        kinetic += 0.5 * v * v;
    }
    return kinetic + eqnn_chain_energy(&o, now, NULL);
}

/* After k steps: now holds the predictions of frame t + k for each start t. */
static void note_rollout(predictor *p, int k, int starts, int every, const double *next)
{
    const study *s = p->s;
    double square = 0, change = 0;
    for (int r = 0; r < starts; r++) {
        int t = s->split + r * every, at = r * s->coordinates;
        double truth = energy(s, frame(s, t - 1), frame(s, t), frame(s, t + 1));
        double here = energy(s, s->before + at, s->now + at, next + at);
        change += fabs(here / truth - 1) / starts;
        for (int i = 0; i < s->coordinates; i++) {
            double d = s->now[at + i] - frame(s, t + k)[i];
            square += d * d / s->coordinates / starts;
        }
    }
    p->far[k] = sqrt(square);
    p->energy[k] = change;
    size_t size = (size_t)s->coordinates;
    memcpy(p->run + (size_t)k * size, s->now, size * sizeof(double));
}

/* Ends early, with NaN in what is left, when the beads fly apart. */
static void roll_out(predictor *p)
{
    const study *s = p->s;
    size_t size = (size_t)s->coordinates, all = (size_t)s->rollout + 1;
    int starts = s->batch < 8 ? s->batch : 8, sane = 1;
    int every = (s->last - s->split - s->rollout) / starts;
    double *next = malloc((size_t)starts * size * sizeof *next);
    p->far = malloc(2 * all * sizeof *p->far);
    p->run = malloc(all * size * sizeof *p->run);
    if (!next || !p->far || !p->run) eqnn_fail(s->c, "no memory for the roll-out");
    p->energy = p->far ? p->far + all : NULL;
    for (size_t k = 0; p->far && k < 2 * all; k++) p->far[k] = NAN;
    for (size_t k = 0; p->run && k < all * size; k++) p->run[k] = NAN;
    for (int r = 0; r < starts && !eqnn_error(s->c); r++) {
        int t = s->split + r * every;
        memcpy(s->before + (size_t)r * size, frame(s, t - 1), size * sizeof *next);
        memcpy(s->now + (size_t)r * size, frame(s, t), size * sizeof *next);
    }
    for (int k = 0; k <= s->rollout && sane && !eqnn_error(s->c); k++) {
        p->predict(p, starts, s->before, s->now, next);
        note_rollout(p, k, starts, every, next);
        sane = p->far[k] < 1e3 && !eqnn_interrupted();
        memcpy(s->before, s->now, (size_t)starts * size * sizeof *next);
        memcpy(s->now, next, (size_t)starts * size * sizeof *next);
    }
    free(next);
}

/* ------------------------------------------------------------------------------------------------
   Reports
   ---------------------------------------------------------------------------------------------- */

static void print_summary(eqnn_ctx *c, const predictor *p, int n)
{
    eqnn_table *t = eqnn_table_make(c, "model|parameters|MSE train|MSE test|cm|p1 cm|p7 x|p12 y|"
                                       "equiv. error|relative|s/epoch");
    for (int i = 0; i < n; i++) {
        eqnn_table_cell(t, "%s", p[i].name);
        if (p[i].c) eqnn_table_cell(t, "%.0f", (double)eqnn_parameter_size(p[i].c));
        else eqnn_table_cell(t, "-");
        eqnn_table_cell(t, "%.3e", p[i].train);
        eqnn_table_cell(t, "%.3e", p[i].test);
        for (int k = 0; k < 4; k++) eqnn_table_cell(t, "%.5f", p[i].correlation[k]);
        eqnn_table_cell(t, p[i].c ? "%.1e" : "-", p[i].error);
        eqnn_table_cell(t, p[i].c ? "%.1e" : "-", p[i].relative);
        eqnn_table_cell(t, p[i].c ? "%.3f" : "-", p[i].seconds);
    }
    eqnn_table_print(t, stdout);
    eqnn_table_free(t);
}

static void write_summary(const study *s, const predictor *p, int n)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/summary.csv", s->out);
    eqnn_csv *f = eqnn_csv_open(s->c, path, "model,parameters,mse_train,mse_test,corr_cm,corr_p1,"
                                "corr_p7x,corr_p12y,equivariance_error,equivariance_relative,"
                                "seconds_per_epoch", 0);
    for (int i = 0; i < n; i++) {
        eqnn_csv_text(f, p[i].name);
        eqnn_csv_number(f, p[i].c ? (double)eqnn_parameter_size(p[i].c) : 0);
        eqnn_csv_number(f, p[i].train);
        eqnn_csv_number(f, p[i].test);
        for (int k = 0; k < 4; k++) eqnn_csv_number(f, p[i].correlation[k]);
        eqnn_csv_number(f, p[i].error);
        eqnn_csv_number(f, p[i].relative);
        eqnn_csv_number(f, p[i].seconds);
        eqnn_csv_end(f);
    }
    eqnn_csv_close(f);
}

/* How far after 1, a tenth, and all of the frames; and what became of the energy. */
static void print_rollout(const study *s, const predictor *p, int n)
{
    int tenth = s->rollout > 10 ? s->rollout / 10 : 1;
    char titles[160];
    snprintf(titles, sizeof titles, "roll-out|rms error after 1|after %d|after %d|"
             "energy error after %d|after %d", tenth, s->rollout, tenth, s->rollout);
    eqnn_table *t = eqnn_table_make(s->c, titles);
    for (int i = 0; i < n; i++) {
        eqnn_table_cell(t, "%s", p[i].name);
        eqnn_table_cell(t, "%.2e", p[i].far[1]);
        eqnn_table_cell(t, "%.2e", p[i].far[tenth]);
        eqnn_table_cell(t, "%.2e", p[i].far[s->rollout]);
        eqnn_table_cell(t, "%.1e", p[i].energy[tenth]);
        eqnn_table_cell(t, "%.1e", p[i].energy[s->rollout]);
    }
    printf("\n");
    eqnn_table_print(t, stdout);
    eqnn_table_free(t);
}

static void write_rollout(const study *s, const predictor *p, int n)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/rollout.csv", s->out);
    eqnn_csv *f = eqnn_csv_open(s->c, path, "model,frame,rms_error,energy_error", 0);
    for (int i = 0; i < n; i++)
        for (int k = 0; k <= s->rollout; k++) {
            eqnn_csv_text(f, p[i].name);
            eqnn_csv_number(f, k);
            eqnn_csv_number(f, p[i].far[k]);
            eqnn_csv_number(f, p[i].energy[k]);
            eqnn_csv_end(f);
        }
    eqnn_csv_close(f);
}

/* The equivariant model with the smallest test error, or any model, or NULL. */
static const predictor *best_model(const predictor *p, int n)
{
    const predictor *best = NULL;
    for (int i = 0; i < n; i++)
        if (p[i].net && (!best || best->net == mlp || (p[i].net != mlp && p[i].test < best->test)))
            best = &p[i];
    return best;
}

static void print_verdict(const predictor *p, int n)
{
    const predictor *best = best_model(p, n), *trivial = &p[0];
    for (int i = 0; i < n; i++)
        if (!p[i].net && p[i].test < trivial->test) trivial = &p[i];
    if (!best) return;
    double factor = trivial->test / best->test;
    printf("\n%s %s \"%s\": its test error is %.2f times %s.\n", best->name,
           factor > 1 ? "beats" : "does not beat", trivial->name, factor > 1 ? factor : 1 / factor,
           factor > 1 ? "smaller" : "larger");
}

/* ------------------------------------------------------------------------------------------------
   Pictures
   ---------------------------------------------------------------------------------------------- */

/* A curve from log.csv, so that that of a resumed run is whole. */
static void add_curve(eqnn_plot *plot, const char *name, FILE *f)
{
    enum { MOST = 20000 };
    double *x = malloc(2 * MOST * sizeof *x), *test = x + MOST;
    char line[256], model[32];
    int n = 0;
    rewind(f);
    while (x && n < MOST && fgets(line, sizeof line, f))
        n += sscanf(line, "%31[^,],%lf,%*[^,],%lf", model, &x[n], &test[n]) == 3
             && !strcmp(model, name);
    if (n > 0) eqnn_plot_add(plot, name, n, x, test, NULL);
    free(x);
}

static void draw_losses(const study *s, const predictor *p, int n)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/log.csv", s->out);
    FILE *f = fopen(path, "rb");
    eqnn_plot *plot = eqnn_plot_make(s->c, &(eqnn_plot_opts){ .title = "Test error while training",
        .x_label = "epoch", .y_label = "mean squared error", .log_y = 1, .width = 680 });
    for (int i = 0; f && i < n; i++)
        if (p[i].net) add_curve(plot, p[i].name, f);
    static const char *const grey[3] = { "#bbbbbb", "#888888", "#444444" };
    for (int i = 0; i < 3; i++)
        eqnn_plot_add(plot, p[i].name, 2, (double[]){ 1, s->epochs },
                      (double[]){ p[i].test, p[i].test },
                      &(eqnn_series_opts){ .dashed = 1, .colour = grey[i], .size = 1.4 });
    snprintf(path, sizeof path, "%s/losses.svg", s->out);
    eqnn_plot_save(plot, path);
    eqnn_plot_free(plot);
    if (f) fclose(f);
}

/* Predicted against true targets of the test: what correlation there is where it matters. */
static eqnn_plot *correlation_panel(predictor *p)
{
    enum { MOST = 1500 };
    const study *s = p->s;
    static double truth[MOST], guess[MOST];
    int n = 0, samples = s->last - s->split, every = 1 + samples * s->coordinates / MOST;
    double *next = s->next, most = 0;
    for (int t = s->split; t < s->last; t++) {
        take(s, t, t + 1);
        p->predict(p, 1, s->before, s->now, next);
        for (int i = t % every; i < s->coordinates && n < MOST; i += every) {
            if (i % 3 == 2) continue;
            double from = base(s, s->before[i], s->now[i]);
            truth[n] = frame(s, t + 1)[i] - from;
            guess[n] = next[i] - from;
            most = fmax(most, fabs(truth[n++]));
        }
    }
    eqnn_plot *plot = eqnn_plot_make(s->c, &(eqnn_plot_opts){ .title = p->name, .equal = 1,
        .width = 400, .x_label = "true target", .y_label = "predicted", .x_min = -most,
        .x_max = most, .y_min = -most, .y_max = most });
    eqnn_plot_add(plot, NULL, 2, (double[]){ -most, most }, (double[]){ -most, most },
                  &(eqnn_series_opts){ .colour = "#999999", .dashed = 1, .size = 1.2 });
    eqnn_plot_add(plot, NULL, n, truth, guess, &(eqnn_series_opts){ .points = 1, .opacity = 0.45 });
    return plot;
}

static void draw_correlations(const study *s, predictor *p, int n)
{
    eqnn_plot *panels[8] = { 0 };
    char path[1024];
    int count = 0;
    for (int i = 0; i < n && count < 8; i++)
        if (p[i].net) panels[count++] = correlation_panel(&p[i]);
    snprintf(path, sizeof path, "%s/correlations.svg", s->out);
    if (count) eqnn_plots_save(s->c, path, panels, count, 3);
    for (int i = 0; i < count; i++) eqnn_plot_free(panels[i]);
}

static void draw_rollouts(const study *s, const predictor *p, int n)
{
    char path[1024];
    const predictor *best = best_model(p, n);
    double *time = malloc(((size_t)s->rollout + 1) * sizeof *time);
    eqnn_plot *both[2] = {
        eqnn_plot_make(s->c, &(eqnn_plot_opts){ .title = "Distance from the truth", .log_y = 1,
                       .x_label = "frames fed back", .y_label = "rms error" }),
        eqnn_plot_make(s->c, &(eqnn_plot_opts){ .title = "Change of energy", .log_y = 1,
                       .y_min = 1e-3, .y_max = 1e2, .x_label = "frames fed back",
                       .y_label = "relative error" }) };
    for (int k = 0; time && k <= s->rollout; k++) time[k] = k;
    for (int i = 0; time && i < n; i++) {
        eqnn_plot_add(both[0], p[i].name, s->rollout + 1, time, p[i].far, NULL);
        eqnn_plot_add(both[1], p[i].name, s->rollout + 1, time, p[i].energy, NULL);
    }
    snprintf(path, sizeof path, "%s/rollout.svg", s->out);
    eqnn_plots_save(s->c, path, both, 2, 2);
    snprintf(path, sizeof path, "%s/trajectories.svg", s->out);
    if (best)
        eqnn_plot_trajectories(s->c, path, s->rollout + 1, s->beads, frame(s, s->split), best->run,
                               "true", best->name);
    eqnn_plot_free(both[0]);
    eqnn_plot_free(both[1]);
    free(time);
}

/* ------------------------------------------------------------------------------------------------
   The program
   ---------------------------------------------------------------------------------------------- */

static const eqnn_option options[] = {
    { "models", "mlp,small,large", "which to train" },
    { "history", "2", "frames a model sees: 1 or 2 (then it is given the last displacement)" },
    { "target", "dx", "what it predicts: dx (change) or x (position)" },
    { "bonds", "", "tell the network who is bonded: on or off; default on with --history 2" },
    { "frames", "2048", "of the generated chain (without --data)" },
    { "data", "", "npz file with arr [frames, beads, 2 or 3] instead" },
    { "epochs", "30", "passes over the training data" },
    { "batch", "32", "frames in a step" },
    { "shuffle", "on", "random order of the training frames" },
    { "rate", "", "of Adam; default 1e-2, with --history 1 1e-3" },
    { "schedule", "cosine", "of the rate: cosine or constant" },
    { "hidden", "", "irreps of the network; default 32x0e+16x1o+16x2e, with --history 1\n"
      "                     8x0e+8x0o+16x1e+16x1o+8x2e+8x2o" },
    { "layers", "", "hidden layers of the network; default 1, with --history 1 3" },
    { "radius", "", "beads closer than this are neighbours; default 1.2, with --history 1 3.5" },
    { "basis", "", "radial functions of the network; default 20, with --history 1 10" },
    { "rollout", "100", "frames to feed back at the end" },
    { "out", "build/trajectory", "folder for tables, pictures and models; empty: none" },
    { NULL, NULL, NULL }
};

/* The value of a word option: its place in the list of two, -1 and an error otherwise. */
static int choice(eqnn_args *a, const char *name, const char *first, const char *second)
{
    const char *text = eqnn_args_text(a, name);
    if (!strcmp(text, first)) return 0;
    if (!strcmp(text, second)) return 1;
    if (!a->error[0])
        snprintf(a->error, sizeof a->error, "option --%s is %s or %s, not '%s'", name, first,
                 second, text);
    return -1;
}

/* Options whose default depends on the history: fine forces need a fine radial basis and few
   neighbours; the settings for one frame are those of the e3nn study. */
static void fill_defaults(eqnn_args *a, int history)
{
    static const char *const table[5][3] = {
        { "rate", "1e-3", "1e-2" }, { "layers", "3", "1" }, { "radius", "3.5", "1.2" },
        { "basis", "10", "20" },
        { "hidden", "8x0e+8x0o+16x1e+16x1o+8x2e+8x2o", "32x0e+16x1o+16x2e" } };
    for (int k = 0; k < 5; k++)
        for (int i = 0; i < a->count; i++)
            if (!strcmp(a->option[i].name, table[k][0]) && !*a->option[i].value)
                a->option[i].value = table[k][history];
}

static void understand(study *s, eqnn_args *a)
{
    s->history = eqnn_args_int(a, "history", 1, 2);
    fill_defaults(a, s->history);
    s->to_position = choice(a, "target", "dx", "x");
    s->bonds = *eqnn_args_text(a, "bonds") ? choice(a, "bonds", "off", "on") : s->history == 2;
    s->constant_rate = choice(a, "schedule", "cosine", "constant");
    if (strcmp(eqnn_args_text(a, "device"), "cpu") && !a->error[0])
        snprintf(a->error, sizeof a->error, "option --device: this program uses the cpu only");
    s->frames = eqnn_args_int(a, "frames", 10, 1000000);
    s->epochs = eqnn_args_int(a, "epochs", 0, 1000000);
    s->batch = eqnn_args_int(a, "batch", 1, 4096);
    s->layers = eqnn_args_int(a, "layers", 1, 100);
    s->basis = eqnn_args_int(a, "basis", 1, 1000);
    s->rollout = eqnn_args_int(a, "rollout", 0, 100000);
    s->shuffle = eqnn_args_on(a, "shuffle");
    s->resume = eqnn_args_on(a, "resume");
    s->rate = eqnn_args_number(a, "rate");
    s->radius = eqnn_args_number(a, "radius");
    s->hidden = eqnn_args_text(a, "hidden");
    s->models = eqnn_args_text(a, "models");
    s->data = eqnn_args_text(a, "data");
    s->out = eqnn_args_text(a, "out");
    s->context.seed = eqnn_args_seed(a);
    s->context.threads = eqnn_args_int(a, "threads", 0, 1024);
}

/* The three that learn nothing, then the models asked for; returns how many, 0 on an error. */
static int list_predictors(study *s, predictor *p)
{
    static const struct { const char *name; network net; } known[] = {
        { "mlp", mlp }, { "small", small }, { "large", large } };
    int n = 3;
    p[0] = (predictor){ .name = "no motion", .predict = no_motion };
    p[1] = (predictor){ .name = "mean drift", .predict = mean_drift };
    p[2] = (predictor){ .name = "repeat last displacement", .predict = repeat_last };
    for (const char *word = s->models; *word;) {
        size_t length = strcspn(word, ","), k = 0;
        while (k < 3 && (strlen(known[k].name) != length || strncmp(known[k].name, word, length)))
            k++;
        if (k == 3 || n == 8) {
            eqnn_fail(s->c, "--models %s: choose from mlp, small and large", s->models);
            return 0;
        }
        p[n] = (predictor){ .name = known[k].name, .predict = by_network, .net = known[k].net };
        p[n++].c = eqnn_make(&s->context);
        word += length + (word[length] == ',');
    }
    for (int i = 0; i < n; i++) p[i].s = s;
    return n;
}

/* Trains (a model) and scores one predictor. 0 on an error, or when Ctrl-C came. */
static int study_one(predictor *p, eqnn_csv *log)
{
    const study *s = p->s;
    if (p->net && !p->c) eqnn_fail(s->c, "no memory for a context");
    if (p->c && !eqnn_error(s->c)) train(p, log);
    if (eqnn_interrupted()) return 0;
    p->train = evaluate(p, s->first, s->split, NULL);
    p->test = evaluate(p, s->split, s->last, p->correlation);
    if (p->c) check_symmetry(p);
    if (s->rollout) roll_out(p);
    if (p->c && eqnn_error(p->c)) eqnn_fail(s->c, "%s: %s", p->name, eqnn_error(p->c));
    return !eqnn_error(s->c);
}

static void report(study *s, predictor *p, int n)
{
    print_summary(s->c, p, n);
    if (s->rollout) print_rollout(s, p, n);
    print_verdict(p, n);
    if (!*s->out) return;
    write_summary(s, p, n);
    draw_losses(s, p, n);
    draw_correlations(s, p, n);
    if (s->rollout) write_rollout(s, p, n);
    if (s->rollout) draw_rollouts(s, p, n);
    if (!eqnn_error(s->c)) printf("Tables, pictures and models are in %s.\n", s->out);
}

static void run(study *s)
{
    predictor p[8];
    char path[1024];
    eqnn_csv *log = NULL;
    int done = 0, n = 0;
    if (prepare(s)) n = list_predictors(s, p);
    snprintf(path, sizeof path, "%s/log.csv", s->out);
    if (s->split - s->first < 1 || s->last - s->split < s->rollout + 8)
        eqnn_fail(s->c, "%d frames are too few: %d for the test, --rollout %d needs %d", s->frames,
                  s->last - s->split, s->rollout, s->rollout + 8);
    if (*s->out && !eqnn_error(s->c) && eqnn_make_folder(s->c, s->out))
        log = eqnn_csv_open(s->c, path, "model,epoch,mse_train,mse_test,seconds_per_epoch",
                            s->resume);
    if (!eqnn_error(s->c))
        printf("%d frames of %d beads; %d samples for training, %d for the test\n", s->frames,
               s->beads, s->split - s->first, s->last - s->split);
    while (done < n && !eqnn_error(s->c) && study_one(&p[done], log)) done++;
    eqnn_csv_close(log);
    if (done == n && n > 0) report(s, p, n);
    else if (eqnn_interrupted() && !eqnn_error(s->c))
        printf("Interrupted%s.\n", *s->out ? "; the same command with --resume continues" : "");
    for (int i = 0; i < n; i++) {
        eqnn_free(p[i].c);
        free(p[i].far);
        free(p[i].run);
    }
}

int main(int argc, char **argv)
{
    study s = { 0 };
    eqnn_args a;
    int go = eqnn_args_read(&a, argc, argv, "Learns how a chain of beads moves.", options);
    if (go == 0) return 0;
    if (go > 0) understand(&s, &a);
    if (a.error[0]) {
        fprintf(stderr, "trajectory: %s\n", a.error);
        return 2;
    }
    eqnn_interrupt_catch();
    s.c = eqnn_make(&s.context);
    if (s.c) run(&s);
    const char *error = s.c ? eqnn_error(s.c) : "no memory";
    if (error) fprintf(stderr, "trajectory: %s\n", error);
    int failed = error != NULL;
    release(&s);
    return failed;
}
