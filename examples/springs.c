/* springs.c - which network learns how particles on springs move, and from how few examples?

   cc -O2 -fopenmp -I. examples/springs.c -lm -o springs && ./springs --epochs 50
   (--help lists the options)

   Six particles of random masses in a plane, every pair of them joined by a spring (eqnn_system
   "coupled" in eqnn_data.h). A network sees 5 moments, 0.04 s, of n_train such systems and is then
   asked to follow others for 1 s. It is an energy H, whose motion is dz/dt = (dH/dp, -dH/dq), or
   it is dz/dt itself:

      HLieResNet       H = kinetic energy + LieConv (M. Finzi, S. Stanton, P. Izmailov, A. G.
                       Wilson, ICML 2020, arXiv:2002.12880) of positions about their centre
      LieTransformer   the same with attention (M. Hutchinson et al., ICML 2021, arXiv:2012.10885)
      HFC, HOGN, VOGN  H by an ordinary network, and by graph networks (A. Sanchez-Gonzalez et al.
                       2019, arXiv:1909.12790)
      FC, OGN          dz/dt by these; FLieResNet by LieConv

   The first two take a --group: T(2), SE(2), SO(2), Trivial(2), SE(2)_canonical, ... Lists, as in
   --network HLieResNet,HFC --n-train 10,100, give every network with every size. --study is the
   papers' comparison; an entry of the list may name its group, LieTransformer:SE(2)_canonical.

   You will see a table of errors over systems that were not trained on: the mean square of the 24
   coordinates over 5 moments, as the papers have it, beside their values; and for roll-outs of 100
   moments that of each moment, and as geometric means over the systems

      state      rms(a - b) / (rms(a) + rms(b)), a predicted, b true
      energy     |H(a) - H(start)| / |H(start)| of the true H
      momentum   |P(a) - P(start)| / sum of |p|,  P the sum of all momenta

   Beside the networks stand what learns nothing: "stays" and "free flight". Pictures: errors.svg
   against time, losses.svg while training, motion.svg (moving) of the first test system, and with
   several sizes sizes.svg.

   It teaches: what is built in need not be learned, which counts where examples are few. Motion by
   an H conserves it, and momentum too if H sees only differences of places, as with T(2).

   As published: data by the 3/8 rule with steps of 5/499 s, which is also how predictions are made;
   momenta that are not centred; sqrt(1e7 / n_train) epochs, LieTransformer sqrt(1.2e8 / n_train),
   which is 200 of 3000 systems; a rate that falls as a cosine; the weights of the smallest error on
   validation systems. Options have the names of both papers' commands. --system nbody and moons are
   their planets, in a plane or with --space-dim 3 in space.

   --test-particles 4 or 8 asks what was learned of six particles about systems of other sizes,
   which all networks but FC and HFC can be shown.

   A batch is cut in --parts, each with a thread and a graph of its own, so that both cores work.

   "make test" runs it with
      --network all --n-train 4 --n-val 2 --n-test 3 --n-rollout 2 --epochs 1 --k 8 */

#define EQNN_IMPLEMENTATION
#include "eqnn_data.h"
#include "eqnn_groups.h"
#include <ctype.h>

/* ------------------------------------------------------------------------------------------------
   What is studied
   ---------------------------------------------------------------------------------------------- */

/* A kind of network with the papers' settings. */
typedef struct network {
    const char *name;
    int lie, energy;      /* takes a group; is an energy                        */
    double rate;
    int batch, width, layers;
    double effort;        /* epochs^2 n_train                                   */
} network;

static const network networks[] = {
    { "HLieResNet", 1, 1, 1e-3, 200, 384, 4, 1e7 },
    { "FLieResNet", 1, 0, 1e-3, 200, 384, 4, 1e7 },
    { "LieTransformer", 1, 1, 1e-3, 100, 160, 5, 1.2e8 },
    { "FC", 0, 0, 3e-3, 200, 256, 4, 1e7 },
    { "HFC", 0, 1, 1e-2, 200, 256, 4, 1e7 },
    { "OGN", 0, 0, 1e-2, 200, 256, 1, 1e7 },
    { "HOGN", 0, 1, 1e-2, 200, 256, 1, 1e7 },
    { "VOGN", 0, 1, 3e-3, 200, 512, 1, 1e7 },
};
enum { NETWORKS = sizeof networks / sizeof *networks, MOST_MODELS = 64, MOST_PARTS = 64 };

typedef struct study {
    /* asked for */
    const char *name, *networks, *sizes, *group, *kernel, *attention, *norm, *act, *head;
    const char *out;
    eqnn_run_opts run; /* asked for: epochs (0: many), resume */
    int n_val, n_test, n_far, batch, width, layers, heads, kernel_dim, samples, length;
    int times, every, often, parts, sums, checkpoint, give_up, constant_rate;
    int particles, test_particles, axes;
    double rate, fill;
    uint64_t data_seed;
    eqnn_opts context;
    /* the data: pieces [length][dim] and, far, [times][dim] */
    eqnn_ctx *c;
    eqnn_system system, learned, asked; /* system: of these that which is followed now          */
    int most_train, most_val, moving; /* moving: positions and momenta of a state, dim less [1] */
    double dt, *train, *val, *test, *far;
} study;
/* [1] the constants, which stand at its end */

/* What says how systems go on: a network with weights, or a rule without. */
typedef struct model {
    char name[64], file[64], group[40];
    const network *net;   /* NULL: a rule                                                   */
    void (*rule)(const study *s, const double *z, double t, double *now);
    int n_train, n_val, epochs, batch, width, layers, samples;
    double rate;
    const study *s;
    eqnn_ctx *c;
    eqnn_parts *parts;
    eqnn_run *run;
    /* what came out */
    double mse_best, mse_train, mse_test, seconds; /* best: of validation; seconds of a step */
    double *curve[4];     /* [times] mean square; state, energy, momentum                   */
    double mean[4];       /* of all times                                                   */
    double *motion;       /* [times][moving] of the first test system                       */
    int lost;             /* roll-outs that flew apart                                      */
} model;

/* ------------------------------------------------------------------------------------------------
   Data
   ---------------------------------------------------------------------------------------------- */

/* n pieces of so many moments each, of systems first, first + 1, ...; the trajectories behind them
   have as many moments as published. */
static double *pieces(study *s, uint64_t first, int n, int length)
{
    int all = s->system.given == 2 ? 500 : 200;
    size_t size = (size_t)n * (size_t)length * (size_t)s->system.dim;
    double *z = malloc((size + 1) * sizeof *z);
    eqnn_chunk_opts o = { .length = length, .chunks = all / length > 0 ? all / length : 1,
                          .dt = s->dt, .tolerance = -1, .seed = s->data_seed };
    if (!z) eqnn_fail(s->c, "no memory for %d trajectories", n);
    else eqnn_system_chunks(s->c, &s->system, &o, first, n, z);
    return z;
}

/* From here on states are those of this system. */
static void attend(study *s, const eqnn_system *system)
{
    s->system = *system;
    s->moving = 2 * system->particles * system->axes;
}

/* A larger training set holds the smaller ones; the test is the same for all. */
static int prepare(study *s)
{
    const char *name = !strcmp(s->name, "springs") ? "coupled" : s->name;
    if (!strcmp(name, "nbody")) name = "planets";
    s->dt = !strcmp(name, "coupled") ? 5.0 / 499 : 2.0 / 199;
    if (!eqnn_system_particles(s->c, name, s->particles, s->axes, &s->learned)
        || !eqnn_system_particles(s->c, name, s->test_particles, s->axes, &s->asked)) return 0;
    s->learned.drifting = s->asked.drifting = 1;
    attend(s, &s->learned);
    s->train = pieces(s, 0, s->most_train, s->length);
    s->val = pieces(s, (uint64_t)1 << 24, s->most_val, s->length);
    attend(s, &s->asked);
    s->test = pieces(s, (uint64_t)1 << 25, s->n_test, s->length);
    s->far = pieces(s, (uint64_t)1 << 25, s->n_far, s->times);
    return !eqnn_error(s->c);
}

/* Rows for the particles of n states that lie stride apart: (q, p), or with constants set these. */
static eqnn_tensor *rows(const study *s, eqnn_ctx *c, const double *z, size_t stride,
                         const int *items, int n, int constants)
{
    int P = s->system.particles, d = s->system.axes, given = s->system.given;
    int cols = constants ? given : 2 * d, half = P * d;
    double *x = malloc(((size_t)n * (size_t)P * (size_t)cols + 1) * sizeof *x), *at = x;
    for (int i = 0; x && i < n; i++) {
        const double *from = z + (size_t)(items ? items[i] : i) * stride;
        for (int j = 0; j < P; j++)
            for (int k = 0; k < cols; k++)
                *at++ = constants ? from[2 * half + j * given + k]
                        : k < d   ? from[j * d + k]
                                  : from[half + j * d + k - d];
    }
    eqnn_tensor *y = x ? eqnn_from_double(c, n * P, cols, x) : eqnn_fail(c, "no memory");
    free(x);
    return y;
}

/* ------------------------------------------------------------------------------------------------
   Networks
   ---------------------------------------------------------------------------------------------- */

/* What a network is told about the systems of a batch. */
typedef struct motion {
    const model *m;
    eqnn_particles particles;
    const eqnn_lie *g;
    double alpha;
} motion;

/* Every particle of a system sees every one. */
static motion motion_of(const model *m, eqnn_ctx *c, const double *z, size_t stride,
                        const int *items, int n)
{
    int P = m->s->system.particles, *example = malloc((size_t)(n * P + 1) * sizeof *example);
    motion o = { .m = m, .alpha = 0.2 };
    for (int i = 0; example && i < n * P; i++) example[i] = i / P;
    eqnn_graph_opts graph = { .example = example, .examples = n, .loops = 1 };
    if (m->net->lie) o.g = eqnn_lie_weighed(c, m->group, &o.alpha);
    o.particles.graph = example ? eqnn_complete_graph(c, n * P, &graph) : NULL;
    o.particles.constants = rows(m->s, c, z, stride, items, n, 1);
    free(example);
    return o;
}

/* Neighbours are all, unless --fill says otherwise: then their radius is learned. SE(2)_canonical
   has no distance, and so no radius. */
static eqnn_lie_resnet_opts lie_resnet(const model *m)
{
    double fill = m->s->fill, radius = strstr(m->group, "canonical") ? 0 : fill < 1 ? 2 : 1e6;
    return (eqnn_lie_resnet_opts){ .width = m->width, .layers = m->layers,
        .conv = { .fill = fill, .radius = radius, .sum = m->s->sums } };
}

static eqnn_tensor *attention(eqnn_tensor *z, const motion *o)
{
    const study *s = o->m->s;
    eqnn_act act = eqnn_act_find(eqnn_context(z), s->act);
    eqnn_lie_transformer_opts opts = { .cols = o->m->width, .layers = o->m->layers,
        .norm = s->norm, .head = s->head,
        .attention = { .kernel = s->kernel, .attention = s->attention, .heads = s->heads,
                       .kernel_dim = s->kernel_dim, .act = act } };
    return eqnn_lie_transformer_energy(z, &o->particles, o->g, o->m->samples, "net", &opts);
}

/* dz/dt by LieConv: a row for every particle, the mean over its lifts. */
static eqnn_tensor *lie_field(eqnn_tensor *z, const motion *o)
{
    int d = eqnn_cols(z) / 2, samples = o->m->samples;
    eqnn_lie_cloud cloud;
    eqnn_lie_resnet_opts opts = lie_resnet(o->m);
    const eqnn_graph *graph = o->particles.graph;
    eqnn_tensor *q = eqnn_centred(eqnn_slice(z, 0, d), graph);
    opts.no_pool = 1;
    if (!eqnn_lie_cloud_make(o->g, q, graph, "lift", samples, o->alpha, &cloud)) return NULL;
    eqnn_tensor *x = eqnn_concat(o->particles.constants, eqnn_slice(z, d, d));
    eqnn_tensor *y = eqnn_lie_resnet(eqnn_repeat(x, samples), &cloud, "net", 2 * d, &opts);
    y = eqnn_reshape(y, eqnn_rows(z), samples * 2 * d);
    eqnn_tensor *sum = eqnn_slice(y, 0, 2 * d);
    for (int k = 1; k < samples; k++) sum = eqnn_add(sum, eqnn_slice(y, k * 2 * d, 2 * d));
    return eqnn_scale(sum, 1.0 / samples);
}

static eqnn_tensor *baseline(eqnn_tensor *z, const motion *o)
{
    char kind[8] = "";
    eqnn_baseline_opts opts = { .width = o->m->width, .layers = o->m->layers };
    for (int i = 0; o->m->net->name[i] && i < 7; i++)
        kind[i] = (char)tolower((unsigned char)o->m->net->name[i]);
    return eqnn_particle_baseline(z, &o->particles, kind, "net", &opts);
}

/* dz/dt. Slopes of an energy need the tape, also where nothing else does. */
static eqnn_tensor *field(eqnn_tensor *z, double t, void *user)
{
    const motion *o = user;
    eqnn_ctx *c = eqnn_context(z);
    const char *name = o->m->net->name;
    eqnn_lie_resnet_opts opts = lie_resnet(o->m);
    int recording = eqnn_recording(c, 1), energy = o->m->net->energy;
    eqnn_tensor *y;
    (void)t;
    if (!energy) eqnn_recording(c, recording);
    if (!strcmp(name, "LieTransformer")) y = attention(z, o);
    else if (!strcmp(name, "FLieResNet")) y = lie_field(z, o);
    else if (!strcmp(name, "HLieResNet"))
        y = eqnn_lie_energy(z, &o->particles, o->g, o->m->samples, o->alpha, "net", &opts);
    else y = baseline(z, o);
    if (energy) y = eqnn_hamiltonian_field(y, z);
    eqnn_recording(c, recording);
    return y;
}

/* ------------------------------------------------------------------------------------------------
   Predictions
   ---------------------------------------------------------------------------------------------- */

static void stays(const study *s, const double *z, double t, double *now)
{
    (void)t;
    memcpy(now, z, (size_t)s->moving * sizeof *now);
}

/* q + p t / m */
static void free_flight(const study *s, const double *z, double t, double *now)
{
    int d = s->system.axes, half = s->moving / 2;
    for (int k = 0; k < half; k++) {
        now[k] = z[k] + t * z[half + k] / z[s->moving + k / d * s->system.given];
        now[half + k] = z[half + k];
    }
}

/* Pieces z [n][length][dim] to be continued from their first states: out [n][length][moving]. */
typedef struct forecast {
    const model *m;
    const double *z;
    double *out;
    int n, length;
} forecast;

/* After a step: y's rows into states [n][dim] and to moment k of the output. A system that has
   flown apart is NaN from there on, and goes on from where it began. */
static void note_step(const forecast *f, int first, int n, int k, const eqnn_real *y, double *now)
{
    const study *s = f->m->s;
    int P = s->system.particles, d = s->system.axes, half = P * d, dim = s->system.dim;
    for (int i = 0; i < n; i++) {
        size_t piece = (size_t)(first + i) * (size_t)f->length;
        double *to = now + (size_t)i * (size_t)dim, largest = 0;
        double *out = f->out + (piece + (size_t)k) * (size_t)s->moving;
        for (int j = 0; j < 2 * half; j++) {
            int row = j % half / d, col = j % d + (j < half ? 0 : d);
            to[j] = (double)y[(i * P + row) * 2 * d + col];
            largest = largest + fabs(to[j]);
        }
        int lost = !(largest < 1e6) || !(out[-s->moving] < INFINITY);
        for (int j = 0; j < 2 * half; j++) out[j] = lost ? NAN : to[j];
        if (lost) memcpy(to, f->z + piece * (size_t)dim, (size_t)dim * sizeof *to);
    }
}

/* Step by step, each of which is forgotten but for its result: lifts that are random stay the same
   along the way, as they would not after eqnn_reset. */
static void follow(eqnn_ctx *c, const forecast *f, int first, int n)
{
    const study *s = f->m->s;
    size_t dim = (size_t)s->system.dim, stride = (size_t)f->length * dim;
    double *now = malloc(((size_t)n * dim + 1) * sizeof *now);
    const double *z = f->z + (size_t)first * stride;
    motion o = motion_of(f->m, c, z, stride, NULL, n);
    eqnn_ode_opts rule = { .method = EQNN_RK38 };
    for (int i = 0; now && i < n; i++) {
        memcpy(now + (size_t)i * dim, z + (size_t)i * stride, dim * sizeof *now);
        memcpy(f->out + (size_t)(first + i) * (size_t)f->length * (size_t)s->moving,
               z + (size_t)i * stride, (size_t)s->moving * sizeof *now);
    }
    for (int k = 1; now && k < f->length && !eqnn_error(c) && !eqnn_interrupted(); k++) {
        double times[2] = { s->dt * (k - 1), s->dt * k };
        eqnn_mark mark = eqnn_mark_make(c);
        eqnn_tensor *y[2];
        if (eqnn_ode(field, rows(s, c, now, dim, NULL, n, 0), times, 2, y, &o, &rule))
            note_step(f, first, n, k, eqnn_data(y[1]), now);
        eqnn_rewind(mark, NULL);
    }
    free(now);
}

static void forecast_part(eqnn_ctx *c, int part, int parts, void *user)
{
    enum { TOGETHER = 50 };
    const forecast *f = user;
    int from = f->n * part / parts, to = f->n * (part + 1) / parts;
    for (int i = from; i < to && !eqnn_error(c); i += TOGETHER) {
        follow(c, f, i, to - i < TOGETHER ? to - i : TOGETHER);
        eqnn_reset(c);
    }
}

/* Training or a roll-out broke down: that is a result, which the table shows, and no reason to stop
   a study. Memory that runs out is. */
static void accept(const model *m)
{
    const char *error = eqnn_error(m->c);
    if (!error || strstr(error, "memory")) return;
    fprintf(stderr, "%s: %s\n", m->name, error);
    eqnn_clear(m->c);
}

static void predict(forecast *f)
{
    const model *m = f->m;
    const study *s = m->s;
    size_t dim = (size_t)s->system.dim, moving = (size_t)s->moving;
    for (size_t i = 0; i < (size_t)f->n * (size_t)f->length * moving; i++) f->out[i] = NAN;
    for (size_t i = 0; m->rule && i < (size_t)f->n; i++)
        for (size_t k = 0; k < (size_t)f->length; k++)
            m->rule(s, f->z + i * (size_t)f->length * dim, s->dt * (double)k,
                    f->out + (i * (size_t)f->length + k) * moving);
    if (m->rule) return;
    int recording = eqnn_recording(m->c, 0);
    eqnn_parts_run(m->parts, forecast_part, f);
    accept(m);
    eqnn_recording(m->c, recording);
    eqnn_reset(m->c);
}

/* The mean square over pieces, moments (the first has no error) and coordinates: INFINITY when one
   flew apart. */
static double error_of(const model *m, const double *z, int n)
{
    const study *s = m->s;
    size_t moving = (size_t)s->moving, moments = (size_t)n * (size_t)s->length;
    forecast f = { m, z, malloc((moments * moving + 1) * sizeof(double)), n, s->length };
    double sum = 0;
    if (!f.out) eqnn_fail(s->c, "no memory for %d predictions", n);
    if (f.out) predict(&f);
    for (size_t i = 0; f.out && i < moments; i++)
        for (size_t k = 0; k < moving; k++) {
            double e = f.out[i * moving + k] - z[i * (size_t)s->system.dim + k];
            sum += e * e / (double)(moments * moving);
        }
    free(f.out);
    return sum < INFINITY ? sum : INFINITY;
}

/* ------------------------------------------------------------------------------------------------
   Training
   ---------------------------------------------------------------------------------------------- */

typedef struct lesson {
    const model *m;
    const int *items;
    int n;
    double loss[MOST_PARTS];
} lesson;

static const double *moment(const study *s, const double *z, int k)
{
    return z + (size_t)k * (size_t)s->system.dim;
}

/* A part's share of the mean square over n pieces, their moments and coordinates. */
static void learn_part(eqnn_ctx *c, int part, int parts, void *user)
{
    enum { MOST_MOMENTS = 1000 };
    lesson *l = user;
    const study *s = l->m->s;
    int from = l->n * part / parts, n = l->n * (part + 1) / parts - from;
    const int *items = l->items + from;
    size_t stride = (size_t)s->length * (size_t)s->system.dim;
    double times[MOST_MOMENTS];
    eqnn_tensor *y[MOST_MOMENTS], *sum = NULL;
    eqnn_ode_opts rule = { .method = EQNN_RK38, .checkpoint = s->checkpoint };
    l->loss[part] = 0;
    if (n == 0) return;
    for (int k = 0; k < s->length; k++) times[k] = s->dt * k;
    motion o = motion_of(l->m, c, s->train, stride, items, n);
    eqnn_tensor *z = rows(s, c, s->train, stride, items, n, 0);
    if (!eqnn_ode(field, z, times, s->length, y, &o, &rule)) return;
    for (int k = 1; k < s->length; k++) {
        eqnn_tensor *e = eqnn_mse(y[k], rows(s, c, moment(s, s->train, k), stride, items, n, 0));
        sum = sum ? eqnn_add(sum, e) : e;
    }
    sum = eqnn_scale(sum, (double)n / l->n / s->length);
    l->loss[part] = eqnn_value(sum);
    eqnn_backward(sum);
}

/* The rate falls to nothing as a cosine of the epochs: LieConv's with every step, LieTransformer's
   with every epoch. */
static double rate_now(const model *m)
{
    eqnn_schedule cosine = { .kind = EQNN_COSINE, .rate = m->rate, .least = 1e-3 * m->rate,
                             .total = m->epochs };
    if (m->s->constant_rate) return m->rate;
    if (!strcmp(m->net->name, "LieTransformer")) return eqnn_schedule_rate(&cosine, m->run->epoch);
    return eqnn_run_rate(m->run, &cosine);
}

/* The loss that is shown and written is the mean of an epoch. */
static void step(model *m, eqnn_adam *adam, const int *items, int n)
{
    double sum = 0;
    lesson l = { .m = m, .items = items, .n = n };
    if (m->run->batch == 0) m->run->loss = (eqnn_average){ 0 };
    eqnn_adam_rate(adam, rate_now(m));
    eqnn_parts_run(m->parts, learn_part, &l);
    for (int i = 0; i < m->s->parts; i++) sum += l.loss[i];
    eqnn_adam_step(adam);
    eqnn_reset(m->c);
    eqnn_run_step(m->run, sum, n);
    eqnn_run_show(m->run, "train %.2e", sum);
    if (m->s->often && m->run->steps % m->s->often == 0) eqnn_run_save(m->run);
}

/* A line of the log; 0 when there is no hope. */
static int look(model *m, eqnn_csv *log)
{
    const study *s = m->s;
    double mse = error_of(m, s->val, m->n_val), epoch = eqnn_run_epochs(m->run);
    if (!eqnn_run_look(m->run, mse)) return 1;
    const double row[] = { m->n_train, epoch, eqnn_average_value(&m->run->loss), mse,
                           1000 * eqnn_run_pace(m->run) };
    eqnn_csv_row(log, m->name, 5, row);
    return !s->give_up || epoch * 5 < m->epochs || mse < 0.01;
}

/* Weights come into being at the first call; the workers of the parts find them there. */
static int begin(model *m)
{
    const study *s = m->s;
    motion o = motion_of(m, m->c, s->train, 0, NULL, 1);
    field(rows(s, m->c, s->train, 0, NULL, 1, 0), 0, &o);
    eqnn_reset(m->c);
    eqnn_training(m->c, s->fill < 1);
    m->parts = eqnn_parts_make(m->c, s->parts, s->context.threads);
    return !eqnn_error(m->c);
}

static void train(model *m, eqnn_csv *log)
{
    const study *s = m->s;
    const int *items;
    int every = s->every ? s->every : (m->epochs + 24) / 25, hope = 1;
    eqnn_run_opts o = s->run;
    o.batch = m->batch, o.epochs = m->epochs, o.save = 20, o.looks = (double)m->epochs / every;
    o.path = eqnn_path_in(s->c, s->out, "%s.safetensors", m->file);
    m->run = begin(m) ? eqnn_run_make(m->c, m->name, m->n_train, &o) : NULL;
    if (!m->run) return;
    eqnn_adam *adam = eqnn_adam_make(m->c, &(eqnn_adam_opts){ .rate = m->rate });
    for (int n; hope && (n = eqnn_run_next(m->run, &items)) >= 0;) {
        if (n > 0) step(m, adam, items, n);
        else hope = look(m, log);
    }
    eqnn_run_end(m->run);
    accept(m);
    m->mse_train = eqnn_average_value(&m->run->loss);
    m->mse_best = m->run->best;
    m->seconds = eqnn_run_pace(m->run);
    eqnn_training(m->c, 0);
    eqnn_run_best(m->run);
}

/* ------------------------------------------------------------------------------------------------
   Scores
   ---------------------------------------------------------------------------------------------- */

/* |P(a) - P(start)| / sum of |p(start)| */
static double momentum_error(const study *s, const double *a, const double *start)
{
    int d = s->system.axes, half = s->moving / 2;
    double change[3] = { 0 }, square = 0, size = 0;
    for (int k = half; k < 2 * half; k++) change[k % d] += a[k] - start[k];
    for (int k = 0; k < d; k++) square += change[k] * change[k];
    for (int k = half; k < 2 * half; k += d)
        size += sqrt(start[k] * start[k] + start[k + 1] * start[k + 1]
                     + (d == 3 ? start[k + 2] * start[k + 2] : 0));
    return sqrt(square) / size;
}

/* Of one system at one moment: mean square, state, energy, momentum, the last three at most 1 and
   at least 1e-12. */
static void errors_at(const study *s, const double *a, const double *truth, const double *start,
                      double out[4])
{
    double z[256], aa = 0, bb = 0, dd = 0;
    memcpy(z, start, (size_t)s->system.dim * sizeof *z);
    memcpy(z, a, (size_t)s->moving * sizeof *z);
    for (int k = 0; k < s->moving; k++) {
        aa += a[k] * a[k];
        bb += truth[k] * truth[k];
        dd += (a[k] - truth[k]) * (a[k] - truth[k]);
    }
    double energy = s->system.energy(&s->system, start);
    out[0] = dd / s->moving;
    out[1] = sqrt(dd) / (sqrt(aa) + sqrt(bb));
    out[2] = fabs(s->system.energy(&s->system, z) / energy - 1);
    out[3] = momentum_error(s, a, start);
    for (int k = 1; k < 4; k++) out[k] = out[k] < 1 ? fmax(out[k], 1e-12) : 1;
}

/* The mean square is over those systems that have not flown apart. */
static void score(model *m, const double *z)
{
    const study *s = m->s;
    size_t dim = (size_t)s->system.dim, moving = (size_t)s->moving, times = (size_t)s->times;
    double e[4];
    for (size_t k = 0; k < times; k++) {
        double sum[4] = { 0 };
        m->lost = 0;
        for (size_t i = 0; i < (size_t)s->n_far; i++) {
            const double *start = s->far + i * times * dim, *a = z + (i * times + k) * moving;
            errors_at(s, a, start + k * dim, start, e);
            if (a[0] < INFINITY) sum[0] += e[0];
            else m->lost++;
            for (int j = 1; j < 4; j++) sum[j] += log(e[j]) / s->n_far;
        }
        m->curve[0][k] = sum[0] / (s->n_far - m->lost);
        for (int j = 1; j < 4; j++) m->curve[j][k] = exp(sum[j]);
        m->mean[0] += m->curve[0][k] / s->times;
        for (int j = 1; j < 4; j++) m->mean[j] += sum[j] / s->times;
    }
    for (int j = 1; j < 4; j++) m->mean[j] = exp(m->mean[j]);
}

static void measure(model *m)
{
    const study *s = m->s;
    size_t size = (size_t)s->times * (size_t)s->moving;
    double *z = malloc((size_t)s->n_far * size * sizeof *z);
    forecast f = { m, s->far, z, s->n_far, s->times };
    m->motion = malloc(size * sizeof *z);
    if (!z || !m->motion) eqnn_fail(s->c, "no memory for %d roll-outs", s->n_far);
    m->mse_test = error_of(m, s->test, s->n_test);
    if (z && m->motion) {
        predict(&f);
        memcpy(m->motion, z, size * sizeof *z);
        if (!eqnn_interrupted()) score(m, z);
    }
    free(z);
}

/* ------------------------------------------------------------------------------------------------
   What the papers found
   ---------------------------------------------------------------------------------------------- */

/* Test errors by n_train: LieConv's T(2) as in its paper's figure (as the LieTransformer authors
   recorded it), their own rerun of it, and their network, read from their figure. */
enum { PUBLISHED = 10 };
static const int published_sizes[PUBLISHED] = { 10, 25, 50, 100, 400, 1000, 3000, 10000, 30000,
                                                96000 };
static const struct { const char *network, *label; double mse[PUBLISHED]; } published[] = {
    { "HLieResNet", "LieConv T(2), paper",
      { 2.747e-3, 6.711e-3, 8.709e-4, 1.954e-3, 2.881e-4, 1.369e-4, 1.179e-4, 1.702e-5, 7.747e-6,
        2.305e-6 } },
    { "HLieResNet", "LieConv T(2), rerun",
      { 1.04e-3, 1.43e-3, 8.9e-4, 4.6e-4, 3.2e-4, 9.9e-5, 1.97e-5, 3.66e-6, 1.40e-6, 2.2e-7 } },
    { "LieTransformer", "LieTransformer T(2), paper",
      { 7.3e-4, 1.5e-4, 5.9e-5, 2.5e-5, 8.5e-6, 5.7e-6, 1.2e-6, 4.6e-7, 2.9e-7, 1.1e-7 } },
};

/* Published are springs on as many particles as were learned from. */
static int is_published(const study *s)
{
    return !strcmp(s->asked.name, "coupled") && s->asked.particles == s->learned.particles;
}

/* The which-th published value of a model, or NaN. */
static double published_error(const model *m, int which)
{
    if (!m->net || strcmp(m->group, "T(2)") || !is_published(m->s)) return NAN;
    for (size_t k = 0; k < sizeof published / sizeof *published; k++) {
        if (strcmp(published[k].network, m->net->name) || which-- > 0) continue;
        for (int i = 0; i < PUBLISHED; i++)
            if (published_sizes[i] == m->n_train) return published[k].mse[i];
    }
    return NAN;
}

/* ------------------------------------------------------------------------------------------------
   Reports
   ---------------------------------------------------------------------------------------------- */

static void cell(eqnn_table *t, double value)
{
    eqnn_table_cell(t, value < INFINITY ? "%.2e" : value > 0 ? "inf" : "-", value);
}

static void print_summary(const study *s, const model *m, int n)
{
    int last = s->times - 1, tenth = last < 10 ? last : 10;
    char titles[256];
    snprintf(titles, sizeof titles, "network|n_train|epochs|weights|MSE train|test|paper|rerun|"
             "MSE after %d|%d|state|energy|momentum|lost|ms/step", tenth, last);
    eqnn_table *t = eqnn_table_make(s->c, titles);
    for (int i = 0; i < n; i++) {
        int learns = m[i].net != NULL;
        eqnn_table_cell(t, "%s", m[i].name);
        eqnn_table_cell(t, learns ? "%d" : "-", m[i].n_train);
        eqnn_table_cell(t, learns ? "%d" : "-", m[i].epochs);
        eqnn_table_cell(t, learns ? "%.0f" : "-", learns ? (double)eqnn_parameter_size(m[i].c) : 0);
        cell(t, learns ? m[i].mse_train : NAN);
        cell(t, m[i].mse_test);
        for (int k = 0; k < 2; k++) cell(t, published_error(&m[i], k));
        cell(t, m[i].curve[0][tenth]);
        cell(t, m[i].curve[0][last]);
        for (int j = 1; j < 4; j++) cell(t, m[i].mean[j]);
        eqnn_table_cell(t, "%d/%d", m[i].lost, s->n_far);
        eqnn_table_cell(t, learns ? "%.1f" : "-", 1000 * m[i].seconds);
    }
    eqnn_table_print(t, stdout);
    eqnn_table_free(t);
}

static void write_summary(const study *s, const model *m, int n)
{
    eqnn_csv *f = eqnn_csv_open(s->c, eqnn_path_in(s->c, s->out, "summary.csv"),
                                "network,n_train,epochs,parameters,mse_train,mse_val,mse_test,"
                                "state,energy,momentum,lost,ms_per_step", 0);
    for (int i = 0; i < n; i++) {
        eqnn_csv_text(f, m[i].name);
        eqnn_csv_number(f, m[i].n_train);
        eqnn_csv_number(f, m[i].epochs);
        eqnn_csv_number(f, m[i].net ? (double)eqnn_parameter_size(m[i].c) : 0);
        eqnn_csv_number(f, m[i].mse_train);
        eqnn_csv_number(f, m[i].mse_best);
        eqnn_csv_number(f, m[i].mse_test);
        for (int j = 1; j < 4; j++) eqnn_csv_number(f, m[i].mean[j]);
        eqnn_csv_number(f, m[i].lost);
        eqnn_csv_number(f, 1000 * m[i].seconds);
        eqnn_csv_end(f);
    }
    eqnn_csv_close(f);
    f = eqnn_csv_open(s->c, eqnn_path_in(s->c, s->out, "rollout.csv"),
                      "network,n_train,time,mse,state,energy,momentum", 0);
    for (int i = 0; i < n; i++)
        for (int k = 0; k < s->times; k++) {
            eqnn_csv_text(f, m[i].name);
            eqnn_csv_number(f, m[i].n_train);
            eqnn_csv_number(f, s->dt * k);
            for (int j = 0; j < 4; j++) eqnn_csv_number(f, m[i].curve[j][k]);
            eqnn_csv_end(f);
        }
    eqnn_csv_close(f);
}

/* Models have the plot's colours; what learns nothing is grey and dashed. */
static eqnn_series_opts style(const model *m)
{
    if (m->net) return (eqnn_series_opts){ 0 };
    return (eqnn_series_opts){ .dashed = 1, .size = 1.4,
                               .colour = m->rule == stays ? "#bbbbbb" : "#777777" };
}

static void draw_errors(const study *s, const model *m, int n)
{
    static const char *const title[3] = { "Distance from the truth", "Energy", "Momentum" };
    double *time = malloc((size_t)s->times * sizeof *time);
    eqnn_plot *panel[3];
    for (int k = 0; time && k < s->times; k++) time[k] = s->dt * k;
    for (int j = 0; j < 3; j++) {
        panel[j] = eqnn_plot_make(s->c, &(eqnn_plot_opts){ .title = title[j], .log_y = 1,
            .x_label = "time in s", .y_label = j ? "relative change" : "relative error" });
        for (int k = 0; time && k < 2 * n; k++) { /* networks first: losses.svg's colours */
            const model *q = &m[k % n]; /* what stays keeps all but the truth */
            eqnn_series_opts o = style(q);
            if ((q->net != NULL) == (k < n) && (q->net || j == 0 || (j == 1 && q->rule != stays)))
                eqnn_plot_add(panel[j], j ? NULL : q->name, s->times - 1, time + 1,
                              q->curve[j + 1] + 1, &o);
        }
    }
    eqnn_plots_save(s->c, eqnn_path_in(s->c, s->out, "errors.svg"), panel, 3, 3);
    for (int j = 0; j < 3; j++) eqnn_plot_free(panel[j]);
    free(time);
}

static void draw_losses(const study *s, const model *m, int n)
{
    eqnn_plot *plot = eqnn_plot_make(s->c, &(eqnn_plot_opts){ .title = "Error while training",
        .x_label = "epoch", .y_label = "mean square, validation", .log_y = 1, .width = 680 });
    const char *log = eqnn_path_in(s->c, s->out, "log.csv");
    for (int i = 0; i < n; i++)
        if (m[i].net) eqnn_plot_csv(plot, log, m[i].name, 2, 4, NULL);
    eqnn_plot_save(plot, eqnn_path_in(s->c, s->out, "losses.svg"));
    eqnn_plot_free(plot);
}

static int same_network(const model *a, const model *b)
{
    return a->net == b->net && !strcmp(a->group, b->group);
}

/* Test error against the size of the training set, a line for each network; the papers' dashed. */
static void draw_sizes(const study *s, const model *m, int n)
{
    eqnn_plot *plot = eqnn_plot_make(s->c, &(eqnn_plot_opts){ .title = "Error of 5 moments",
        .x_label = "training systems", .y_label = "mean square", .log_x = 1, .log_y = 1,
        .width = 760, .height = 480 });
    double x[PUBLISHED], y[MOST_MODELS];
    int most = 0;
    for (int i = 0; i < n; i++) {
        int count = 0, first = 1;
        for (int j = 0; j < i; j++) first &= !same_network(&m[i], &m[j]);
        for (int j = i; m[i].net && first && j < n && count < PUBLISHED; j++)
            if (same_network(&m[i], &m[j])) x[count] = m[j].n_train, y[count++] = m[j].mse_test;
        char label[64];
        snprintf(label, sizeof label, "%.22s%s%.38s", m[i].net ? m[i].net->name : "",
                 *m[i].group ? " " : "", m[i].group);
        if (count) eqnn_plot_add(plot, label, count, x, y, NULL);
        if (m[i].n_train > most) most = m[i].n_train;
    }
    for (size_t k = 0; is_published(s) && k < sizeof published / sizeof *published; k++) {
        static const char *const grey[] = { "#bbbbbb", "#888888", "#444444" };
        int count = 0;
        for (; count < PUBLISHED && published_sizes[count] <= most; count++)
            x[count] = published_sizes[count];
        eqnn_plot_add(plot, published[k].label, count, x, published[k].mse,
                      &(eqnn_series_opts){ .dashed = 1, .colour = grey[k], .size = 1.4 });
    }
    eqnn_plot_save(plot, eqnn_path_in(s->c, s->out, "sizes.svg"));
    eqnn_plot_free(plot);
}

/* --- the moving picture: the truth as rings and lines, a prediction as dots and dashes --- */

typedef struct stage { double low[2], scale; int side; } stage; /* what of the plane is seen */

static stage stage_of(const study *s)
{
    stage a = { .side = 300 };
    int d = s->system.axes, half = s->moving / 2;
    double high[2] = { -INFINITY, -INFINITY }, size = 1e-9;
    a.low[0] = a.low[1] = INFINITY;
    for (int t = 0; t < s->times; t++)
        for (int k = 0; k < half; k++) {
            double x = s->far[(size_t)t * (size_t)s->system.dim + (size_t)k];
            if (k % d < 2) a.low[k % d] = fmin(a.low[k % d], x);
            if (k % d < 2) high[k % d] = fmax(high[k % d], x);
        }
    for (int k = 0; k < 2; k++) size = fmax(size, 1.1 * (high[k] - a.low[k]));
    for (int k = 0; k < 2; k++) a.low[k] = (a.low[k] + high[k] - size) / 2;
    a.scale = a.side / size;
    return a;
}

/* Coordinate axis of a particle at moment t, in the picture; what is lost stays at the edge. */
static double on_stage(const study *s, const stage *a, const double *z, int stride, int t,
                       int particle, int axis)
{
    double x = z[(size_t)t * (size_t)stride + (size_t)(particle * s->system.axes + axis)];
    double at = (x - a->low[axis]) * a->scale;
    if (axis) at = a->side - at;
    return at > -a->side && at < 2 * a->side ? at : -a->side;
}

static void write_path(FILE *f, const study *s, const stage *a, const double *z, int stride,
                       int particle, const char *colour, const char *dashes)
{
    fprintf(f, "<path fill=\"none\" stroke=\"%s\" stroke-opacity=\"0.5\"%s d=\"", colour, dashes);
    for (int t = 0; t < s->times; t++)
        fprintf(f, "%s%.1f %.1f", t ? "L" : "M", on_stage(s, a, z, stride, t, particle, 0),
                on_stage(s, a, z, stride, t, particle, 1));
    fprintf(f, "\"/>\n");
}

static void write_dot(FILE *f, const study *s, const stage *a, const double *z, int stride,
                      int particle, const char *look, double radius)
{
    fprintf(f, "<circle r=\"%.1f\" cx=\"%.1f\" cy=\"%.1f\" %s>", radius,
            on_stage(s, a, z, stride, 0, particle, 0), on_stage(s, a, z, stride, 0, particle, 1),
            look);
    for (int axis = 0; axis < 2; axis++) {
        fprintf(f, "<animate attributeName=\"c%c\" dur=\"8s\" repeatCount=\"indefinite\" values=\"",
                axis ? 'y' : 'x');
        for (int t = 0; t < s->times; t++)
            fprintf(f, "%s%.1f", t ? ";" : "", on_stage(s, a, z, stride, t, particle, axis));
        fprintf(f, "\"/>");
    }
    fprintf(f, "</circle>\n");
}

static void write_panel(FILE *f, const study *s, const stage *a, const model *m, int number)
{
    char look[96], colour[8];
    fprintf(f, "<g transform=\"translate(%d 40)\"><text x=\"0\" y=\"-12\">%s</text>\n"
               "<clipPath id=\"s%d\"><rect width=\"%d\" height=\"%d\"/></clipPath>\n"
               "<rect width=\"%d\" height=\"%d\" fill=\"none\" stroke=\"#dcdcdc\"/>\n"
               "<g clip-path=\"url(#s%d)\">\n",
            20 + number * (a->side + 20), m->name, number, a->side, a->side, a->side, a->side,
            number);
    for (int p = 0; p < s->system.particles; p++) {
        double mass = s->far[s->moving + p * s->system.given];
        double radius = fmin(8, 3 + sqrt(fmax(mass, 0)));
        eqnn_plot_colour(0.9 * p / fmax(1, s->system.particles - 1), colour);
        write_path(f, s, a, s->far, s->system.dim, p, colour, "");
        write_path(f, s, a, m->motion, s->moving, p, colour, " stroke-dasharray=\"3 4\"");
        snprintf(look, sizeof look, "fill=\"%s\"", colour);
        write_dot(f, s, a, m->motion, s->moving, p, look, radius);
        snprintf(look, sizeof look, "fill=\"none\" stroke=\"%s\" stroke-width=\"1.5\"", "#222222");
        write_dot(f, s, a, s->far, s->system.dim, p, look, radius + 2);
    }
    fprintf(f, "</g></g>\n");
}

/* At most six networks, those trained on most systems. */
static void draw_motion(const study *s, const model *m, int n)
{
    enum { MOST_PANELS = 6 };
    stage a = stage_of(s);
    const model *shown[MOST_PANELS];
    int panels = 0;
    for (int i = 0; i < n && panels < MOST_PANELS; i++)
        if (m[i].net && m[i].n_train == s->most_train) shown[panels++] = &m[i];
    const char *path = eqnn_path_in(s->c, s->out, "motion.svg");
    FILE *f = panels ? fopen(path, "wb") : NULL;
    if (!f) {
        if (panels) eqnn_fail(s->c, "cannot write '%s'", path);
        return;
    }
    fprintf(f, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" "
               "font-family=\"sans-serif\" font-size=\"12\">\n"
               "<rect width=\"100%%\" height=\"100%%\" fill=\"#ffffff\"/>\n",
            20 + panels * (a.side + 20), a.side + 80);
    for (int i = 0; i < panels; i++) write_panel(f, s, &a, shown[i], i);
    fprintf(f, "<text x=\"20\" y=\"%d\">ring, line: truth; dot, dashes: prediction; %.2f s in 8"
               "</text>\n</svg>\n", a.side + 64, s->dt * (s->times - 1));
    if (fclose(f) != 0) eqnn_fail(s->c, "cannot write '%s'", path);
}

static void print_verdict(const model *m, int n)
{
    const model *best = NULL;
    for (int i = 0; i < n; i++)
        if (m[i].net && (!best || m[i].mean[1] < best->mean[1])) best = &m[i];
    if (best)
        printf("\n%s is nearest to the truth in roll-outs: state error %.2e, %.3f times that of "
               "\"free flight\".\n", best->name, best->mean[1], best->mean[1] / m[1].mean[1]);
}

static void report(const study *s, const model *m, int n)
{
    int sizes = 0;
    for (int i = 0; i < n; i++) sizes |= m[i].net && m[i].n_train != s->most_train;
    print_summary(s, m, n);
    print_verdict(m, n);
    if (!*s->out) return;
    write_summary(s, m, n);
    draw_errors(s, m, n);
    draw_losses(s, m, n);
    draw_motion(s, m, n);
    if (sizes) draw_sizes(s, m, n);
    if (!eqnn_error(s->c)) printf("Tables, pictures and models are in %s.\n", s->out);
}

/* ------------------------------------------------------------------------------------------------
   The program
   ---------------------------------------------------------------------------------------------- */

/* Settings that were not asked for are the papers' for this network and group; SE(2)_canonical,
   finite turns, is told their number. */
static void settle(const study *s, model *m)
{
    const network *net = m->net;
    const char *turns = strstr(m->group, "canonical"), *told = turns ? strchr(turns, '(') : NULL;
    int small = turns && !strcmp(net->name, "LieTransformer");
    m->samples = s->samples ? s->samples : told ? atoi(told + 1) : turns ? 2 : 1;
    m->width = s->width ? s->width : small ? 80 : net->width;
    m->layers = s->layers ? s->layers : small ? 3 : net->layers;
    m->rate = s->rate > 0 ? s->rate : !strncmp(m->group, "SO2", 3) || !strncmp(m->group, "SO(2", 4)
            ? 3e-4 : net->rate;
    m->epochs = s->run.epochs ? s->run.epochs : (int)sqrt(net->effort / m->n_train);
    m->batch = s->batch ? s->batch : net->batch;
    if (m->batch > m->n_train) m->batch = m->n_train;
    m->n_val = s->n_val ? s->n_val : m->n_train < 2000 ? m->n_train : 2000;
    if (turns && !told)
        snprintf(m->group + strlen(m->group), sizeof m->group - strlen(m->group), "(%d)",
                 m->samples);
}

/* SQ and RxSQ turn the quarter of the plane where both coordinates are positive. */
static void check_group(const study *s, const char *group)
{
    double alpha;
    const eqnn_lie *g = eqnn_lie_weighed(s->c, group, &alpha);
    if (g && eqnn_lie_point_dim(g) != s->axes)
        eqnn_fail(s->c, "--group %s acts on %d axes; particles have %d", group,
                  eqnn_lie_point_dim(g), s->axes);
    if (g && strstr(eqnn_lie_name(g), "SQ"))
        eqnn_fail(s->c, "--group %s acts on points of positive coordinates only, and particles go "
                  "anywhere", group);
}

static void add_model(study *s, model *m, int *n, const network *net, const char *group, int size)
{
    model *to = &m[*n];
    if (*n == MOST_MODELS || strlen(group) + 8 > sizeof to->group) {
        eqnn_fail(s->c, "--network %s: too many models, or too long a group", s->networks);
        return;
    }
    int fixed = !strcmp(net->name, "FC") || !strcmp(net->name, "HFC");
    if (fixed && s->test_particles != s->particles)
        eqnn_fail(s->c, "--test-particles: %s knows %d particles only", net->name, s->particles);
    *to = (model){ .net = net, .n_train = size, .s = s, .c = eqnn_make(&s->context),
                   .mse_train = NAN, .mse_best = NAN };
    if (net->lie) snprintf(to->group, sizeof to->group, "%s", group);
    snprintf(to->name, sizeof to->name, "%s%s%s %d", net->name, net->lie ? " " : "", to->group,
             size);
    settle(s, to);
    if (net->lie) check_group(s, to->group);
    if (!to->c) eqnn_fail(s->c, "no memory for a context");
    for (int i = 0, k = 0; to->name[i]; i++)
        if (isalnum((unsigned char)to->name[i]) || to->name[i] == ' ')
            to->file[k++] = (char)(to->name[i] == ' ' ? '_' : to->name[i]);
    ++*n;
}

/* A word of --network: a name, a name and its group behind a colon, or all. */
static void add_word(study *s, model *m, int *n, const char *word, int length, int size)
{
    int before = *n, name = (int)strcspn(word, ":");
    char group[40] = "";
    if (name < length) snprintf(group, sizeof group, "%.*s", length - name - 1, word + name + 1);
    else name = length;
    int all = name == 3 && !strncmp(word, "all", 3);
    for (int k = 0; k < NETWORKS && !eqnn_error(s->c); k++) {
        const char *own = networks[k].name;
        if (all || ((int)strlen(own) == name && !strncmp(word, own, (size_t)name)))
            add_model(s, m, n, &networks[k], *group ? group : s->group, size);
    }
    if (*n == before && !eqnn_error(s->c))
        eqnn_fail(s->c, "--network %s: choose from all, HLieResNet, FLieResNet, LieTransformer, "
                  "FC, HFC, OGN, HOGN and VOGN", s->networks);
}

static int list_models(study *s, model *m)
{
    const char *sizes = s->sizes, *size, *word;
    int n = 2;
    m[0] = (model){ .name = "stays", .rule = stays, .s = s, .mse_best = NAN };
    m[1] = (model){ .name = "free flight", .rule = free_flight, .s = s, .mse_best = NAN };
    while (eqnn_next_word(&sizes, &size) > 0 && !eqnn_error(s->c)) {
        const char *list = s->networks;
        for (int length; (length = eqnn_next_word(&list, &word)) > 0 && !eqnn_error(s->c);)
            add_word(s, m, &n, word, length, atoi(size));
    }
    return n;
}

/* Trains (a network) and follows the test systems. 0 on an error, or when Ctrl-C came. */
static int study_one(study *s, model *m, eqnn_csv *log)
{
    for (int j = 0; j < 4; j++)
        if (!(m->curve[j] = calloc((size_t)s->times, sizeof(double))))
            return eqnn_fail(s->c, "no memory for %s", m->name), 0;
    attend(s, &s->learned);
    if (m->net) train(m, log);
    attend(s, &s->asked);
    if (eqnn_interrupted()) return 0;
    if (!m->c || !eqnn_error(m->c)) measure(m);
    if (m->c && eqnn_error(m->c)) eqnn_fail(s->c, "%s: %s", m->name, eqnn_error(m->c));
    return !eqnn_error(s->c) && !eqnn_interrupted();
}

static void run(study *s)
{
    static model m[MOST_MODELS];
    eqnn_csv *log = NULL;
    int done = 0, n = prepare(s) ? list_models(s, m) : 0;
    if (*s->out && !eqnn_error(s->c) && eqnn_make_folder(s->c, s->out))
        log = eqnn_csv_open(s->c, eqnn_path_in(s->c, s->out, "log.csv"),
                            "model,n_train,epoch,mse_train,mse_val,ms_per_step", s->run.resume);
    for (int i = 0; i < n && *s->out && !s->run.resume && !eqnn_error(s->c); i++)
        if (m[i].net) eqnn_run_forget(eqnn_path_in(s->c, s->out, "%s.safetensors", m[i].file));
    while (done < n && !eqnn_error(s->c) && study_one(s, &m[done], log)) done++;
    eqnn_csv_close(log);
    if (done == n && n > 0) report(s, m, n);
    else if (eqnn_interrupted() && !eqnn_error(s->c))
        printf("Interrupted%s.\n", *s->out ? "; the same command with --resume continues" : "");
    for (int i = 0; i < n; i++) {
        eqnn_run_free(m[i].run);
        eqnn_parts_free(m[i].parts);
        eqnn_free(m[i].c);
        free(m[i].motion);
        for (int j = 0; j < 4; j++) free(m[i].curve[j]);
    }
}

static void release(study *s)
{
    free(s->train);
    free(s->val);
    free(s->test);
    free(s->far);
}

static const eqnn_option options[] = {
    { "network", "HLieResNet",
      "HLieResNet, LieTransformer, HFC, HOGN, VOGN, FC, OGN, FLieResNet, a list, or all" },
    { "group", "T(2)", "of HLieResNet, FLieResNet, LieTransformer" },
    { "system", "springs", "springs, nbody or moons" },
    { "num-particles", "6", "of a system" },
    { "test-particles", "0", "of a test system; 0: as many as in training" },
    { "space-dim", "2", "2 or 3" },
    { "study", "off", "all networks, n_train 10, 100, 400, beside the papers' values" },
    { "n-train", "100", "training systems, or a list" },
    { "n-val", "0", "validation systems; 0: as many, at most 2000" },
    { "n-test", "2000", "test systems" },
    { "n-rollout", "200", "of these followed for long" },
    { "epochs", "0", "passes over the training systems; 0: as the papers have it" },
    { "lr", "0", "0: the network's" },
    { "lr-schedule", "cosine_annealing", "or constant" },
    { "bs", "0", "systems in a step; 0: the network's" },
    { "k", "0", "channels; 0: the network's" },
    { "num-layers", "0", "0: the network's" },
    { "liftsamples", "0", "lifts of a particle; 0: the group's" },
    { "fill", "1", "LieConv: share of the particles that are neighbours" },
    { "mean", "on", "LieConv: means over neighbours, not sums" },
    { "num-heads", "8", "LieTransformer: heads of its attention" },
    { "kernel-type", "mlp", "LieTransformer: see eqnn_lie_attention" },
    { "kernel-dim", "16", "LieTransformer: hidden numbers of the network of positions" },
    { "attention-fn", "dot_product", "LieTransformer: or softmax" },
    { "block-norm", "layer_pre", "LieTransformer: or none, layer_post, batch_pre, batch_post" },
    { "activation-function", "swish", "LieTransformer: silu by another name, or relu, ..." },
    { "architecture", "model_1", "LieTransformer: or lieconv" },
    { "chunk-len", "5", "moments of a training piece" },
    { "rollout", "100", "moments to follow" },
    { "kill-if-poor", "off", "stop when after a fifth of the epochs the error is above 0.01" },
    { "save-check-points", "0", "steps between checkpoints; 0: every 20 s" },
    { "every", "0", "epochs between looks at the validation; 0: 25 times in all" },
    { "data-seed", "0", "of the systems; --seed is that of the weights" },
    { "parts", "2", "of a batch, each with a thread" },
    { "checkpoint", "off", "less memory, more time" },
    { "n-systems", "0", "an error if more are needed; 0: no limit" },
    { "net-config", "{}", "more options, as {'k': 384, 'group': T(2)}" },
    { "data", NULL, NULL },
    { "out", "build/springs", "folder for tables, pictures and models; empty: none" },
    /* other names of the same */
    { "run-name", "--out", NULL },
    { "num-epochs", "--epochs", NULL },
    { "train-epochs", "--epochs", NULL },
    { "learning-rate", "--lr", NULL },
    { "batch-size", "--bs", NULL },
    { "dim-hidden", "--k", NULL },
    { "lift-samples", "--liftsamples", NULL },
    { "model-seed", "--seed", NULL },
    { "net-cfg", "--net-config", NULL },
    { NULL, NULL, NULL }
};

/* What --resume needs to be told as before. */
static const char repeated[] =
    "system,lr,lr-schedule,bs,fill,mean,kernel-type,attention-fn,block-norm,"
    "activation-function,chunk-len,data-seed,seed";

/* The largest training set, and the largest validation set. */
static void understand_sizes(study *s, eqnn_args *a)
{
    const char *list = s->sizes, *word;
    while (eqnn_next_word(&list, &word) > 0) {
        char *end;
        long n = strtol(word, &end, 10);
        if (n < 1 || n > 1000000 || (*end && *end != ','))
            eqnn_args_fail(a, "option --n-train: numbers from 1 to 1000000, or a list of them");
        if (n > s->most_train && n <= 1000000) s->most_train = (int)n;
    }
    if (!s->most_train) eqnn_args_fail(a, "option --n-train is empty");
    s->most_val = s->n_val ? s->n_val : s->most_train < 2000 ? s->most_train : 2000;
    int systems = eqnn_args_int(a, "n-systems", 0, 1000000000);
    if (systems && systems < s->most_train + s->most_val + s->n_test)
        eqnn_args_fail(a, "option --n-systems is less than training, validation and test need");
}

static void understand_networks(study *s, eqnn_args *a)
{
    int all = eqnn_args_on(a, "study");
    s->networks = eqnn_args_text(a, "network");
    s->sizes = eqnn_args_text(a, "n-train");
    if (all && !eqnn_args_given(a, "network"))
        s->networks = "HFC,FC,HOGN,OGN,LieTransformer:T(2),LieTransformer:SE(2)_canonical,"
                      "HLieResNet:T(2),HLieResNet:SE(2)";
    if (all && !eqnn_args_given(a, "n-train")) s->sizes = "10,100,400";
    s->rate = eqnn_args_number(a, "lr");
    s->batch = eqnn_args_int(a, "bs", 0, 100000);
    s->width = eqnn_args_int(a, "k", 0, 100000);
    s->layers = eqnn_args_int(a, "num-layers", 0, 100);
    s->samples = eqnn_args_int(a, "liftsamples", 0, 64);
    s->fill = eqnn_args_number(a, "fill");
    s->sums = !eqnn_args_on(a, "mean");
    s->heads = eqnn_args_int(a, "num-heads", 1, 1000);
    int kernel_dim = eqnn_args_int(a, "kernel-dim", 1, 10000);
    if (eqnn_args_given(a, "kernel-dim")) s->kernel_dim = kernel_dim; /* not all kernels have M */
    s->kernel = eqnn_args_text(a, "kernel-type");
    if (eqnn_args_given(a, "attention-fn") || !isdigit((unsigned char)s->kernel[0]))
        s->attention = eqnn_args_text(a, "attention-fn"); /* a kernel of digits has its own */
    s->norm = eqnn_args_text(a, "block-norm");
    s->head = eqnn_args_text(a, "architecture");
    s->act = eqnn_args_text(a, "activation-function");
    if (!strcmp(s->act, "swish")) s->act = "silu";
    if (!(s->rate >= 0)) eqnn_args_fail(a, "option --lr is negative");
    if (!(s->fill > 0 && s->fill <= 1))
        eqnn_args_fail(a, "option --fill is above 0 and at most 1");
    int any = strstr(s->networks, "all") != NULL, convolves = any || strstr(s->networks, "ResNet");
    int attends = any || strstr(s->networks, "LieTransformer");
    eqnn_args_only(a, convolves || attends, "group,liftsamples",
                   "HLieResNet, FLieResNet and LieTransformer");
    eqnn_args_only(a, convolves, "fill,mean", "HLieResNet and FLieResNet");
    eqnn_args_only(a, attends, "num-heads,kernel-type,kernel-dim,attention-fn,block-norm,"
                   "activation-function,architecture", "LieTransformer");
}

static void understand(study *s, eqnn_args *a)
{
    eqnn_args_choice(a, "system", "springs,nbody,moons");
    s->name = eqnn_args_text(a, "system");
    s->particles = eqnn_args_int(a, "num-particles", 2, 16);
    s->test_particles = eqnn_args_int(a, "test-particles", 0, 16);
    if (s->test_particles == 1)
        eqnn_args_fail(a, "option --test-particles: a system has 2 or more");
    if (!s->test_particles) s->test_particles = s->particles;
    s->axes = eqnn_args_int(a, "space-dim", 2, 3);
    s->group = s->axes == 3 && !eqnn_args_given(a, "group") ? "T(3)" : eqnn_args_text(a, "group");
    s->n_val = eqnn_args_int(a, "n-val", 0, 1000000);
    s->n_test = eqnn_args_int(a, "n-test", 1, 1000000);
    s->n_far = eqnn_args_int(a, "n-rollout", 1, 1000000);
    s->length = eqnn_args_int(a, "chunk-len", 2, 200);
    s->times = eqnn_args_int(a, "rollout", 2, 200);
    s->every = eqnn_args_int(a, "every", 0, 1000000);
    s->often = eqnn_args_int(a, "save-check-points", 0, 1000000000);
    s->parts = eqnn_args_int(a, "parts", 1, MOST_PARTS);
    s->give_up = eqnn_args_on(a, "kill-if-poor");
    s->checkpoint = eqnn_args_on(a, "checkpoint");
    s->data_seed = (uint64_t)eqnn_args_int(a, "data-seed", 0, 2147483646) + 1; /* 0 is no seed */
    s->run = eqnn_args_run(a, repeated);
    s->context = eqnn_args_context(a);
    s->out = eqnn_args_text(a, "out");
    s->constant_rate = eqnn_args_choice(a, "lr-schedule", "cosine_annealing,constant");
    understand_networks(s, a);
    understand_sizes(s, a);
}

int main(int argc, char **argv)
{
    study s = { 0 };
    eqnn_args a;
    int go = eqnn_args_read(&a, argc, argv, "Learns how particles on springs move.", options);
    if (go > 0) understand(&s, &a);
    if ((s.c = eqnn_program_start(&a, &s.context)) != NULL) run(&s);
    release(&s);
    return eqnn_program_end(&a, s.c);
}
