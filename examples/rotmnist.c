/* rotmnist.c - handwritten digits turned by random angles, told apart by convolutions on a group

   cc -O2 -fopenmp -I. examples/rotmnist.c -lm -o rotmnist && ./rotmnist --demo --minutes 2
   (--help lists the options)

   LieConv (Finzi, Stanton, Izmailov, Wilson, ICML 2020, arXiv:2002.12880) takes an image for a set
   of points in the plane, 648 pixels within a circle, lifts each to a group (--group, or a list)
   and convolves there. What a layer sees of two pixels is what the group cannot change:

      Trivial(2)     both places: it may treat each pixel in its own way
      T(2)           the vector between: what is learned here is known everywhere
      Tx, Ty         the same for one of the two axes
      SO2(.2)        the difference of angle about the centre, and both distances from it; alpha .2
                     weighs the angle in the distance by which neighbours are found
      Rx, RxSO2(.3)  ratios of distances from the centre; the same with the difference of angle
      SE2(.05)       vector and angle between two frames, of which every pixel has two
                     (--liftsamples) in opposite directions, the first at random

   Each of the six layers keeps a share of the points (all six --total-ds) and looks at --nbhd
   random ones of the share --fill of the nearest. You will see a table of test errors beside
   those of the paper's authors, whose settings are the defaults, but for three: all images of
   a batch share the places of the points, the frames and the neighbours that were drawn (much
   less work for the network that weighs them), what lies outside of a turned image is
   dark, not grey, and training turns MNIST's images once, not a second time after the data set has.

   It teaches: an image is a set of points, and a convolution a small network of what the group
   leaves of two of them; with another --group the same program is another network, which knows
   shifts, turns or sizes without having seen them.

   500 epochs take days; --minutes M trains for so long with the schedule stretched over that time,
   and --study divides M minutes between Trivial(2), T(2), SO2(.2) and SE2(.05).

      rotmnist --data mnist --study --minutes 60
      rotmnist --data mnist --group "SE2(.05)" --epochs 20 [--no-aug] [--n-train 10000]
      rotmnist --demo --minutes 2

   --data is a folder with MNIST's four IDX files (.gz too where EQNN_ZLIB is defined), of which
   12,000 and 50,000 are turned once, or with
   mnist_all_rotation_normalized_float_train_valid.amat and ..._test.amat. --demo draws digits
   of its own. Options have the names of the paper's commands, too.

   "make test" runs it with
      --demo --net_config {'k':8,'group':SE2(.05),'num_layers':2} --split {'train':9} --n-test 9
      --lifts 1 --num_epochs 1 */

#define EQNN_IMPLEMENTATION
#include "eqnn_data.h"
#include "eqnn_groups.h"

static const char where_from[] =
    "the archive of turned digits is published at "
    "https://sites.google.com/a/lisa.iro.umontreal.ca/public_static_twiki/variations-on-the-mnist-"
    "digits (mnist_rotation_new.zip: unpack it), MNIST itself at http://yann.lecun.com/exdb/mnist: "
    "--data wants the folder of mnist_all_rotation_normalized_float_train_valid.amat and ..._test."
    "amat, or of train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and "
    "t10k-labels-idx1-ubyte. --demo draws digits of its own";

/* ------------------------------------------------------------------------------------------------
   What is studied
   ---------------------------------------------------------------------------------------------- */

enum { SIDE = 28, PIXELS = SIDE * SIDE, CLASSES = 10, MOST_LAYERS = 16, MOST_PARTS = 16 };
enum { MOST_LIFTS = 32, MOST_GROUPS = 16, SHOWN = 24 };
enum { TRAIN, TEST, SETS };

typedef struct images {
    int n;
    float *pixel;                            /* [n][PIXELS], (v - 0.130) / 0.297 of v in 0..1    */
    unsigned char *label;
} images;

typedef struct study {
    /* asked for */
    const char *groups, *data, *out;
    eqnn_run_opts run;                       /* epochs, minutes, looks, resume                   */
    int demo, aug, parts, lifts, n_check, count[SETS];
    int k, layers, nbhd, samples, batch;     /* samples 0: what suits the group                  */
    double rate, fill, total;
    uint64_t data_seed;
    eqnn_opts context;
    /* the data */
    eqnn_ctx *c;
    images set[SETS];
    int widths[MOST_LAYERS + 1];
    double fills[MOST_LAYERS], share;
    int points, pixel[PIXELS];               /* within the circle: which pixels ...              */
    double place[PIXELS][2];                 /* ... and where                                    */
    double often;                            /* % wrong by guessing the most frequent class      */
} study;

/* Lifted points, and which of them each layer leads to. */
typedef struct geometry {
    eqnn_lie_cloud queries[MOST_LAYERS];
    eqnn_ints *chosen[MOST_LAYERS];
} geometry;

/* What a worker needs for its part of a batch. */
typedef struct part {
    int made, wrong;
    double loss;
    size_t memory;                           /* of the worker, in bytes                          */
    geometry lift[MOST_LIFTS];
    eqnn_real *value;                        /* [points][images]                                 */
} part;

typedef struct run {
    const study *s;
    char group[32];
    int samples, lifts, parameters;
    eqnn_ctx *c;
    eqnn_parts *workers;
    eqnn_run *run;
    part part[MOST_PARTS];
    /* the batch */
    const images *set;
    const int *items;
    int n, turned, *guess;                   /* guess [n]: gets the classes, or NULL             */
    /* what came out */
    double budget, epochs, pace, train, check, test;
    size_t memory;
    int *answer;                             /* [n_test]                                         */
} run;

/* ------------------------------------------------------------------------------------------------
   Data
   ---------------------------------------------------------------------------------------------- */

static int make_room(study *s, int set, int n)
{
    images *m = &s->set[set];
    m->pixel = malloc(((size_t)n * PIXELS + 1) * sizeof *m->pixel);
    m->label = malloc((size_t)n + 1);
    m->n = 0;
    if (!m->pixel || !m->label) eqnn_fail(s->c, "no memory for %d images", n);
    return !eqnn_error(s->c);
}

static void add_image(images *m, const double *v, int label)
{
    for (int i = 0; i < PIXELS; i++)
        m->pixel[(size_t)m->n * PIXELS + (size_t)i] = (float)((v[i] - 0.130) / 0.297);
    m->label[m->n++] = (unsigned char)label;
}

/* The file of --data or its .gz, whichever is there; NULL: neither */
static const char *find_file(const study *s, const char *name)
{
    for (int zipped = 0; zipped < 2; zipped++) {
        const char *path = eqnn_path_in(s->c, s->data, "%s%s", name, zipped ? ".gz" : "");
        FILE *f = fopen(path, "rb");
        if (!f) continue;
        fclose(f);
        return path;
    }
    return NULL;
}

/* Images first..first+n-1 of a pair of IDX files, each turned by an angle of its own. Those that
   training turns anew stay as they are: to turn them twice is as good as once, but blurs them
   twice, and the network would be tested on sharper images than it has seen. */
static void add_turned(study *s, int set, const char *kind, uint64_t seed, int first, int n)
{
    enum { TOGETHER = 500 };
    char name[2][64];
    eqnn_idx *x[2];
    for (int i = 0; i < 2; i++) {
        snprintf(name[i], sizeof name[i], "%s-%s-ubyte", kind, i ? "labels-idx1" : "images-idx3");
        const char *path = find_file(s, name[i]);
        x[i] = path ? eqnn_idx_open(s->c, path) : NULL;
        if (!path) eqnn_fail(s->c, "there is no %s in '%s': %s", name[i], s->data, where_from);
    }
    double *v = malloc((size_t)TOGETHER * PIXELS * sizeof *v);
    if (x[0] && x[1] && (x[0]->dims != 3 || x[1]->dims != 1 || x[0]->shape[0] != x[1]->shape[0] ||
                         x[0]->shape[1] != SIDE || x[0]->shape[2] != SIDE))
        eqnn_fail(s->c, "%s and %s do not belong together", name[0], name[1]);
    if (!eqnn_error(s->c) && first + n > x[0]->shape[0])
        eqnn_fail(s->c, "%s has %lld images, %d are asked for", name[0],
                  (long long)x[0]->shape[0], first + n);
    for (int i = 0; i < n && v && !eqnn_error(s->c); i += TOGETHER) {
        int m = n - i < TOGETHER ? n - i : TOGETHER;
        if (set == TRAIN && s->aug) {
            eqnn_idx_values(x[0], (size_t)(first + i) * PIXELS, (size_t)m * PIXELS, v);
            for (int k = 0; k < m * PIXELS; k++) v[k] /= 255;
        } else eqnn_images_turned(s->c, x[0], seed, first + i, m, v);
        for (int k = 0; k < m; k++) {
            double label = eqnn_idx_value(x[1], (size_t)(first + i + k));
            if (!(label >= 0 && label < CLASSES))
                eqnn_fail(s->c, "%s: label %g", name[1], label);
            else add_image(&s->set[set], v + (size_t)k * PIXELS, (int)label);
        }
    }
    free(v);
    for (int i = 0; i < 2; i++) eqnn_idx_close(x[i]);
}

/* The first 12,000 of MNIST's training images for training; its test images, then the last of its
   training images for the test. */
static void recipe(study *s)
{
    enum { ALL = 60000, T10K = 10000 };
    int n = s->count[TEST], small = n < T10K ? n : T10K;
    if (s->count[TRAIN] + n - small > ALL)
        eqnn_fail(s->c, "MNIST has no %d + %d images", s->count[TRAIN], n);
    else if (make_room(s, TRAIN, s->count[TRAIN]) && make_room(s, TEST, n)) {
        add_turned(s, TRAIN, "train", s->data_seed, 0, s->count[TRAIN]);
        add_turned(s, TEST, "t10k", s->data_seed + 1, 0, small);
        if (n > small) add_turned(s, TEST, "train", s->data_seed, ALL - (n - small), n - small);
    }
}

/* Rows of 784 numbers in 0..1 and a label. */
static void read_rows(study *s, int set, const char *path)
{
    FILE *f = fopen(path, "r");
    double v[PIXELS], label;
    if (!f) eqnn_fail(s->c, "cannot open '%s'", path);
    if (!f || !make_room(s, set, s->count[set])) return;
    while (s->set[set].n < s->count[set] && !eqnn_error(s->c)) {
        int got = 0;
        while (got < PIXELS && fscanf(f, "%lf", &v[got]) == 1 && isfinite(v[got])) got++;
        if (got < PIXELS || fscanf(f, "%lf", &label) != 1 || !(label >= 0 && label < CLASSES))
            eqnn_fail(s->c, "'%s': image %d of %d is not 784 numbers and a label", path,
                      s->set[set].n + 1, s->count[set]);
        else add_image(&s->set[set], v, (int)label);
    }
    fclose(f);
}

/* Digits as lines through points (x, y) of 0..8, and their number. */
static const char *const strokes[CLASSES] = {
    "40 62 66 48 26 22 40", "32 40 48", "22 30 50 62 28 68", "21 40 62 44 66 48 27", "58 50 25 75",
    "60 20 24 53 66 48 27", "50 24 26 48 66 45 25", "20 60 38", "44 22 40 62 44 26 48 66 44",
    "63 44 22 40 62 48" };

static double distance_from(const double a[2], const double b[2], double x, double y)
{
    double dx = b[0] - a[0], dy = b[1] - a[1], length = dx * dx + dy * dy;
    double t = length > 0 ? ((x - a[0]) * dx + (y - a[1]) * dy) / length : 0;
    t = fmin(fmax(t, 0), 1);
    return hypot(x - a[0] - t * dx, y - a[1] - t * dy);
}

/* A digit with an unsteady hand, turned. */
static void draw_digit(eqnn_ctx *c, int digit, double *v)
{
    double p[16][2], noise[40], u;
    int n = ((int)strlen(strokes[digit]) + 1) / 3;
    eqnn_tick(c);
    eqnn_random(c, "hand", 1, 40, noise);
    eqnn_random(c, "turn", 0, 1, &u);
    double size = 2.4 * (1 + 0.08 * noise[0]), slant = 0.12 * noise[1], cosine = cos(6.2831853 * u);
    double sine = sin(6.2831853 * u), width = 1.5 + 0.2 * noise[2];
    for (int i = 0; i < n; i++) {
        double y = strokes[digit][3 * i + 1] - '4' + 0.22 * noise[4 + 2 * i];
        double x = strokes[digit][3 * i] - '4' + 0.22 * noise[5 + 2 * i] - slant * y;
        p[i][0] = size * (cosine * x - sine * y) + 13.5;
        p[i][1] = size * (sine * x + cosine * y) + 13.5;
    }
    for (int i = 0; i < PIXELS; i++) {
        double d = 1e9;
        for (int k = 0; k + 1 < n; k++)
            d = fmin(d, distance_from(p[k], p[k + 1], i % SIDE, i / SIDE));
        v[i] = fmin(fmax(width + 0.5 - d, 0), 1);
    }
}

static void draw_digits(study *s)
{
    double v[PIXELS];
    for (int set = 0; set < SETS; set++) {
        if (!make_room(s, set, s->count[set])) return;
        for (int i = 0; i < s->count[set]; i++) {
            draw_digit(s->c, i % CLASSES, v);
            add_image(&s->set[set], v, i % CLASSES);
        }
    }
}

/* Pixels with distance < 15 from the centre; the outermost have coordinates -14 and 14. */
static void place_pixels(study *s)
{
    for (int i = 0; i < PIXELS; i++) {
        double y = -14 + 28.0 / (SIDE - 1) * (i / SIDE), x = -14 + 28.0 / (SIDE - 1) * (i % SIDE);
        if (y * y + x * x >= 225) continue;
        s->pixel[s->points] = i;
        s->place[s->points][0] = y, s->place[s->points][1] = x;
        s->points++;
    }
}

static int prepare(study *s)
{
    static const char row[2][80] = { "mnist_all_rotation_normalized_float_train_valid.amat",
                                     "mnist_all_rotation_normalized_float_test.amat" };
    int seen[SETS][CLASSES] = { { 0 } }, most = 0;
    if (s->demo) draw_digits(s);
    else if (!*s->data) eqnn_fail(s->c, "no --data: %s", where_from);
    else if (find_file(s, row[TRAIN]))
        for (int set = 0; set < SETS; set++) {
            const char *path = find_file(s, row[set]);
            if (path) read_rows(s, set, path);
            else eqnn_fail(s->c, "there is no %s in '%s'", row[set], s->data);
        }
    else recipe(s);
    if (eqnn_error(s->c)) return 0;
    for (int set = 0; set < SETS; set++)
        for (int i = 0; i < s->set[set].n; i++) seen[set][s->set[set].label[i]]++;
    for (int k = 1; k < CLASSES; k++)
        if (seen[TRAIN][k] > seen[TRAIN][most]) most = k;
    s->often = 100 - 100.0 * seen[TEST][most] / s->set[TEST].n;
    place_pixels(s);
    eqnn_lie_image_sizes(s->layers, s->k, s->fill, s->total, s->widths, s->fills, &s->share);
    return 1;
}

static void release(study *s)
{
    for (int set = 0; set < SETS; set++) {
        free(s->set[set].pixel);
        free(s->set[set].label);
    }
}

/* ------------------------------------------------------------------------------------------------
   The network
   ---------------------------------------------------------------------------------------------- */

/* Lifts points; the random turns of a point's frames depend on seed and number only, so that a
   resumed run has the same. */
static int lift(const run *r, const eqnn_lie *g, int number, eqnn_tensor **u, eqnn_tensor **q)
{
    eqnn_ctx *c = eqnn_context(*u);
    int n = eqnn_rows(*u), rows = n * r->samples;
    double *v = malloc((size_t)rows * sizeof *v);
    eqnn_opts o = { .seed = r->s->context.seed + 77 * (uint64_t)number, .threads = 1 };
    eqnn_ctx *chance = eqnn_make(&o);
    if (!v || !chance) eqnn_fail(c, "no memory for the frames");
    else eqnn_random(chance, "frames", 0, (size_t)n, v);
    for (int i = rows - 1; i >= 0 && v; i--)
        v[i] = fmod(v[i / r->samples] + (double)(i % r->samples) / r->samples, 1);
    eqnn_tensor *draws = eqnn_lie_draws(g) && v ? eqnn_from_double(c, rows, 1, v) : NULL;
    int good = eqnn_lie_lift_given(g, *u, draws, r->samples, u, q);
    eqnn_free(chance);
    free(v);
    return good;
}

/* What does not depend on an image: neighbours that may be asked for (three times those that are,
   as a ball at the rim holds fewer points than one in the middle) and the points
   that layers keep. */
static void make_geometry(const run *r, eqnn_ctx *c, int number, geometry *to)
{
    const study *s = r->s;
    double alpha;
    eqnn_mark mark = eqnn_mark_make(c);
    int recording = eqnn_recording(c, 0);
    const eqnn_lie *g = eqnn_lie_weighed(c, r->group, &alpha);
    eqnn_tensor *u = eqnn_from_double(c, s->points, 2, s->place[0]), *q = NULL;
    int good = g && u && lift(r, g, number, &u, &q);
    for (int b = 0; b < s->layers && good; b++) {
        eqnn_lie_cloud all = { 0 };
        eqnn_lie_graph_opts near = { .fill = fmin(1, 3 * s->fills[b]) };
        all.graph = eqnn_lie_graph(g, u, q, alpha, &near);
        all.pairs = eqnn_lie_pairs(g, u, q, all.graph);
        all.distance = eqnn_lie_distance(g, all.pairs, alpha);
        to->chosen[b] = eqnn_lie_farthest(g, u, q, alpha, s->share,
                                          &(eqnn_farthest_opts){ .keep = 1 });
        good = eqnn_lie_sample(&all, to->chosen[b], 0, &to->queries[b], NULL) &&
               eqnn_lie_cloud_keep(&to->queries[b]);
        u = eqnn_take(u, to->chosen[b]);
        if (q) q = eqnn_take(q, to->chosen[b]);
    }
    eqnn_recording(c, recording);
    eqnn_rewind(mark, NULL);
}

static eqnn_lie_resnet_opts network_opts(const study *s)
{
    return (eqnn_lie_resnet_opts){ .conv = { .norm = 1, .most = s->nbhd, .radius = 2 },
                                   .layers = s->layers, .widths = s->widths, .fills = s->fills };
}

/* x [points, images], one value for all samples of a point -> [images, CLASSES] */
static eqnn_tensor *network(const run *r, eqnn_tensor *x, geometry *g)
{
    eqnn_lie_resnet_opts o = network_opts(r->s);
    eqnn_lie_cloud cloud = g->queries[0];
    o.chosen = g->chosen, o.queries = g->queries;
    cloud.copies = eqnn_cols(x);
    if (r->samples > 1) x = eqnn_repeat(x, r->samples);
    x = eqnn_reshape(x, eqnn_rows(x) * eqnn_cols(x), 1);
    return eqnn_lie_resnet(x, &cloud, "net", CLASSES, &o);
}

/* Weights come into being by a look at seven points, which leaves nothing else behind. */
static void make_weights(run *r)
{
    static const double place[7][2] = { { 1, 2 }, { 3, 1 }, { -1, 1 }, { -2, 3 }, { 2, -1 },
                                        { -1, -2 }, { 4, -3 } };
    eqnn_lie_resnet_opts o = network_opts(r->s);
    eqnn_lie_cloud cloud;
    double alpha;
    eqnn_mark mark = eqnn_mark_make(r->c);
    const eqnn_lie *g = eqnn_lie_weighed(r->c, r->group, &alpha);
    const eqnn_graph *all = eqnn_complete_graph(r->c, 7, &(eqnn_graph_opts){ .loops = 1 });
    if (g && eqnn_lie_point_dim(g) != 2)
        eqnn_fail(r->c, "--group %s does not act on the plane", r->group);
    else if (g && strstr(eqnn_lie_name(g), "SQ"))
        eqnn_fail(r->c, "--group %s acts on points of positive coordinates only, and those of "
                        "pixels are counted from the centre", r->group);
    r->samples = r->s->samples ? r->s->samples : g && eqnn_lie_draws(g) ? 2 : 1;
    r->lifts = g && eqnn_lie_draws(g) ? r->s->lifts : 1;
    eqnn_tensor *x = eqnn_from_double(r->c, 7, 2, place[0]);
    if (!g || !eqnn_lie_cloud_make(g, x, all, "lift", r->samples, alpha, &cloud)) return;
    eqnn_lie_resnet(eqnn_full(r->c, 7 * r->samples, 1, 1), &cloud, "net", CLASSES, &o);
    eqnn_rewind(mark, NULL);
}

/* ------------------------------------------------------------------------------------------------
   Training
   ---------------------------------------------------------------------------------------------- */

/* Images first..first+n-1 of the batch as values of their points, turned if it is asked for. */
static eqnn_tensor *values(const run *r, eqnn_ctx *c, part *p, int first, int n)
{
    const study *s = r->s;
    double in[PIXELS], out[PIXELS], *angle = malloc((size_t)n * sizeof *angle);
    if (angle) eqnn_random(c, "angle", 0, (size_t)n, angle);
    else eqnn_fail(c, "no memory for %d angles", n);
    for (int k = 0; k < n && angle; k++) {
        const float *v = r->set->pixel + (size_t)r->items[first + k] * PIXELS;
        for (int i = 0; i < PIXELS; i++) in[i] = (double)v[i];
        if (r->turned)
            eqnn_image_turn(SIDE, SIDE, in, 6.283185307179586 * angle[k], -0.130 / 0.297, out);
        for (int i = 0; i < s->points; i++)
            p->value[i * n + k] = (eqnn_real)(r->turned ? out : in)[s->pixel[i]];
    }
    free(angle);
    return eqnn_from(c, s->points, n, p->value);
}

static int best_class(const eqnn_tensor *y, int row)
{
    int best = 0;
    for (int k = 1; k < CLASSES; k++)
        if (eqnn_at(y, row, k) > eqnn_at(y, row, best)) best = k;
    return best;
}

/* A worker's part of the batch: gradients where it is for training, and what it takes them for. */
static void work(eqnn_ctx *c, int number, int parts, void *user)
{
    run *r = user;
    part *p = &r->part[number];
    int first = r->n * number / parts, n = r->n * (number + 1) / parts - first, label[1024];
    for (; p->made < r->lifts && !eqnn_error(c); p->made++)
        make_geometry(r, c, p->made * parts + number, &p->lift[p->made]);
    int64_t steps = r->run ? r->run->steps : 0;
    p->loss = p->wrong = 0;
    if (n == 0 || eqnn_error(c)) return;
    eqnn_tensor *y = network(r, values(r, c, p, first, n), &p->lift[steps % r->lifts]);
    for (int i = 0; i < n && y; i++) {
        int guess = best_class(y, i);
        label[i] = r->set->label[r->items[first + i]];
        p->wrong += guess != label[i];
        if (r->guess) r->guess[first + i] = guess;
    }
    if (!eqnn_recording(c, 1)) {
        eqnn_recording(c, 0);
        return;
    }
    eqnn_tensor *loss = eqnn_cross_entropy(y, eqnn_ints_make(c, n, label, CLASSES, 0));
    loss = eqnn_scale(loss, (double)n / r->n);
    p->loss = eqnn_value(loss);
    eqnn_backward(loss);
    eqnn_memory m = eqnn_memory_use(c);
    p->memory = m.step_reserved + m.lasting;
}

/* The loss, and how many are wrong. */
static double run_parts(run *r, const images *set, const int *items, int n, int *wrong)
{
    double loss = 0;
    r->set = set, r->items = items, r->n = n;
    eqnn_parts_run(r->workers, work, r);
    for (int k = 0; k < r->s->parts; k++) {
        loss += r->part[k].loss;
        *wrong += r->part[k].wrong;
    }
    return loss;
}

/* % of the first n images of a set that are taken for another class; answer [n] or NULL */
static double error_of(run *r, const images *set, int n, int *answer, const char *title)
{
    int items[1024], wrong = 0, most = 25 * r->s->parts;
    eqnn_progress bar;
    if (title) eqnn_progress_start(&bar, stderr, title, n, 0);
    eqnn_training(r->c, 0);
    int recording = eqnn_recording(r->c, 0);
    for (int i = 0; i < n && !eqnn_error(r->c) && !eqnn_interrupted(); i += most) {
        int m = n - i < most ? n - i : most;
        for (int k = 0; k < m; k++) items[k] = i + k;
        r->guess = answer ? answer + i : NULL;
        run_parts(r, set, items, m, &wrong);
        if (title) eqnn_progress_show(&bar, i + m, "%.2f %% wrong", 100.0 * wrong / (i + m));
    }
    r->guess = NULL;
    eqnn_recording(r->c, recording);
    eqnn_training(r->c, 1);
    if (title) eqnn_progress_end(&bar);
    return 100.0 * wrong / n;
}

/* Looks at test images, so that no weights are chosen by what it finds. */
static void look(run *r, eqnn_csv *log)
{
    r->check = error_of(r, &r->s->set[TEST], r->s->n_check, NULL, NULL);
    if (!eqnn_run_look(r->run, NAN)) return;
    const double row[] = { eqnn_run_epochs(r->run), r->run->seconds / 60,
                           eqnn_average_value(&r->run->loss), eqnn_average_value(&r->run->score),
                           r->check };
    eqnn_csv_row(log, r->group, 5, row);
}

/* One step of Adam on a batch; its rate falls as a cosine. */
static void step(run *r, eqnn_adam *adam, const int *items, int n)
{
    eqnn_schedule cosine = { .kind = EQNN_COSINE, .rate = r->s->rate, .least = 1e-3 * r->s->rate };
    int wrong = 0;
    eqnn_adam_rate(adam, eqnn_run_rate(r->run, &cosine));
    r->turned = r->s->aug;
    double loss = run_parts(r, &r->s->set[TRAIN], items, n, &wrong);
    r->turned = 0;
    eqnn_adam_step(adam);
    eqnn_reset(r->c);
    eqnn_average_add(&r->run->score, 100.0 * wrong / n, n);
    eqnn_run_step(r->run, loss, n);
    eqnn_run_show(r->run, "loss %.3f, %.1f %% wrong, test %.1f %%",
                  eqnn_average_value(&r->run->loss), eqnn_average_value(&r->run->score), r->check);
}

static void train(run *r, eqnn_csv *log)
{
    const study *s = r->s;
    const int *items;
    eqnn_run_opts o = s->run;
    o.batch = s->batch, o.seconds = r->budget;
    o.path = eqnn_path_in(s->c, s->out, "%s.safetensors", r->group);
    r->run = eqnn_run_make(r->c, r->group, s->set[TRAIN].n, &o);
    eqnn_adam *adam = eqnn_adam_make(r->c, &(eqnn_adam_opts){ .rate = s->rate });
    for (int n; (n = eqnn_run_next(r->run, &items)) >= 0;) {
        if (n > 0) step(r, adam, items, n);
        else look(r, log);
    }
    if (!r->run) return;
    r->epochs = eqnn_run_epochs(r->run), r->pace = eqnn_run_pace(r->run);
    r->train = eqnn_average_value(&r->run->score);
}

/* ------------------------------------------------------------------------------------------------
   Pictures and tables
   ---------------------------------------------------------------------------------------------- */

/* Test images that were taken for another class, what they were taken for, and what they are. */
static void draw_wrong(const run *r)
{
    const images *m = &r->s->set[TEST];
    int shown = 0;
    FILE *f = fopen(eqnn_path_in(r->s->c, r->s->out, "%s_wrong.svg", r->group), "w");
    if (!f) return;
    fprintf(f, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 496 %d\" font-family=\""
               "sans-serif\" font-size=\"9\">\n<rect width=\"100%%\" height=\"100%%\" fill=\""
               "white\"/>\n", 46 * 3 + 10);
    for (int i = 0; i < m->n && shown < SHOWN; i++) {
        if (r->answer[i] == m->label[i]) continue;
        int left = 8 + 61 * (shown % 8), top = 8 + 46 * (shown / 8);
        fprintf(f, "<rect x=\"%d\" y=\"%d\" width=\"28\" height=\"28\"/>\n", left, top);
        for (int k = 0; k < PIXELS; k++) {
            double v = 0.130 + 0.297 * (double)m->pixel[(size_t)i * PIXELS + (size_t)k];
            if (v > 0.1)
                fprintf(f, "<rect x=\"%d\" y=\"%d\" width=\"1.05\" height=\"1.05\" fill=\"#fff\" "
                           "opacity=\"%.2f\"/>\n", left + k % SIDE, top + k / SIDE, v);
        }
        fprintf(f, "<text x=\"%d\" y=\"%d\">%d, is %d</text>\n", left, top + 38, r->answer[i],
                m->label[i]);
        shown++;
    }
    fprintf(f, "</svg>\n");
    fclose(f);
}

/* Test errors of the paper's authors: 12,000 images, 500 epochs, 50,000 in the test. */
static double published(const study *s, const char *group)
{
    static const struct { const char *name; double turned, plain; } rows[] = {
        { "Trivial", 1.44, 1.60 }, { "Tx", 1.35, 2.64 }, { "T", 1.32, 2.34 },
        { "SO2", 1.27, 1.26 }, { "RxSO2", 1.13, 1.27 }, { "SE2", 1.13, 1.13 } };
    char name[32];
    size_t n = 0;
    for (size_t i = 0; group[i] && n + 1 < sizeof name; i++) {
        if (group[i] == '(' && group[i + 1] != '2') break;
        if (group[i] != '(' && group[i] != ')') name[n++] = group[i];
    }
    name[n] = 0;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        size_t m = strlen(rows[i].name);
        if (!strncmp(name, rows[i].name, m) && (!name[m] || (!strcmp(name + m, "2") && i < 3)))
            return s->aug ? rows[i].turned : rows[i].plain;
    }
    return NAN;
}

static void report(const study *s, const run *r, int n)
{
    eqnn_table *t = eqnn_table_make(s->c, "group|parameters|epochs|ms a step|MB|train error %|"
                                          "test error %|the paper's, 500 epochs");
    eqnn_table_cell(t, "the most frequent class");
    for (int k = 0; k < 5; k++) eqnn_table_cell(t, "-");
    eqnn_table_number(t, "%.2f", s->often);
    eqnn_table_cell(t, "-");
    for (int i = 0; i < n; i++) {
        eqnn_table_cell(t, "%s", r[i].group);
        eqnn_table_cell(t, "%d", r[i].parameters);
        eqnn_table_number(t, "%.1f", r[i].epochs);
        eqnn_table_number(t, "%.0f", 1e3 * r[i].pace);
        eqnn_table_number(t, "%.0f", (double)r[i].memory / 1048576);
        eqnn_table_number(t, "%.2f", r[i].train);
        eqnn_table_number(t, "%.2f", r[i].test);
        eqnn_table_number(t, "%.2f", s->demo ? NAN : published(s, r[i].group));
    }
    eqnn_table_print(t, stdout);
    eqnn_table_free(t);
    printf("%d training and %d test images%s%s\n", s->set[TRAIN].n, s->set[TEST].n,
           s->demo ? ", drawn by this program" : "", s->aug ? ", turned anew in training" : "");
}

static void draw(const study *s, const run *r, int n)
{
    eqnn_plot *p = eqnn_plot_make(s->c, &(eqnn_plot_opts){ .title = "Turned digits", .log_y = 1,
        .x_label = "epoch", .y_label = "% of the test images taken for another digit" });
    eqnn_csv *f = eqnn_csv_open(s->c, eqnn_path_in(s->c, s->out, "summary.csv"),
                                "group,parameters,epochs,ms_per_step,train_error,test_error", 0);
    for (int i = 0; i < n; i++) {
        eqnn_plot_csv(p, eqnn_path_in(s->c, s->out, "log.csv"), r[i].group, 1, 5, NULL);
        draw_wrong(&r[i]);
        const double row[] = { r[i].parameters, r[i].epochs, 1e3 * r[i].pace, r[i].train,
                               r[i].test };
        eqnn_csv_row(f, r[i].group, 5, row);
    }
    eqnn_csv_close(f);
    eqnn_plot_save(p, eqnn_path_in(s->c, s->out, "errors.svg"));
    eqnn_plot_free(p);
    if (!eqnn_error(s->c)) printf("Tables, pictures and models are in %s.\n", s->out);
}

/* ------------------------------------------------------------------------------------------------
   The program
   ---------------------------------------------------------------------------------------------- */

static int start(run *r)
{
    const study *s = r->s;
    size_t most = (size_t)(s->batch > 25 * s->parts ? s->batch : 25 * s->parts) + 1;
    r->c = eqnn_make(&s->context);
    r->pace = r->train = r->check = r->test = NAN;
    r->answer = malloc(((size_t)s->set[TEST].n + 1) * sizeof *r->answer);
    for (int k = 0; k < s->parts; k++) {
        r->part[k].value = malloc(most * PIXELS * sizeof(eqnn_real));
        if (!r->part[k].value) return 0;
    }
    if (!r->c || !r->answer) return 0;
    make_weights(r);
    r->parameters = (int)eqnn_parameter_size(r->c);
    r->workers = eqnn_parts_make(r->c, s->parts, s->context.threads);
    eqnn_training(r->c, 1);
    return 1;
}

/* Trains and tests. The budget is for both: how long the test will take is seen from a check. */
static int study_one(run *r, eqnn_csv *log, double seconds)
{
    const study *s = r->s;
    if (!start(r)) return eqnn_fail(s->c, "no memory for %s", r->group), 0;
    if (seconds > 0) {
        double begin = eqnn_clock(), least = 0.1 * seconds;
        error_of(r, &s->set[TEST], 25 * s->parts, NULL, NULL); /* lifts the points */
        double lifted = eqnn_clock();
        r->check = error_of(r, &s->set[TEST], s->n_check, NULL, NULL);
        double each = (eqnn_clock() - lifted) / s->n_check;
        r->budget = fmax(seconds - (eqnn_clock() - begin) - 1.05 * each * s->set[TEST].n, least);
    }
    train(r, log);
    if (!eqnn_error(r->c) && !eqnn_interrupted())
        r->test = error_of(r, &s->set[TEST], s->set[TEST].n, r->answer, "test");
    r->memory = eqnn_memory_use(r->c).lasting;
    for (int k = 0; k < s->parts; k++) r->memory += r->part[k].memory;
    if (eqnn_error(r->c)) eqnn_fail(s->c, "%s: %s", r->group, eqnn_error(r->c));
    return !eqnn_error(s->c) && !eqnn_interrupted();
}

static void finish(run *r)
{
    eqnn_run_free(r->run);
    eqnn_parts_free(r->workers);
    for (int k = 0; k < MOST_PARTS; k++) free(r->part[k].value);
    eqnn_free(r->c);
    r->workers = NULL, r->c = NULL, r->run = NULL;
}

static int list_groups(study *s, run *r)
{
    int n = 0;
    const char *list = s->groups, *group;
    for (int length; (length = eqnn_next_word(&list, &group)) > 0; n++) {
        if (n == MOST_GROUPS || length >= (int)sizeof r[n].group)
            return eqnn_fail(s->c, "--group %s: too many groups, or too long a name", s->groups), 0;
        r[n].s = s;
        memcpy(r[n].group, group, (size_t)length);
    }
    return n;
}

static void run_all(study *s)
{
    static run r[MOST_GROUPS];
    int n = list_groups(s, r), finished = 0;
    eqnn_csv *log = NULL;
    if (!prepare(s)) return;
    if (s->n_check > s->set[TEST].n) s->n_check = s->set[TEST].n;
    if (*s->out && eqnn_make_folder(s->c, s->out))
        log = eqnn_csv_open(s->c, eqnn_path_in(s->c, s->out, "log.csv"),
                            "group,epoch,minutes,loss,train_error,test_error", s->run.resume);
    for (int i = 0; i < n && *s->out && !s->run.resume; i++)
        eqnn_run_forget(eqnn_path_in(s->c, s->out, "%s.safetensors", r[i].group));
    while (finished < n && !eqnn_error(s->c)) {
        int good = study_one(&r[finished], log, s->run.seconds / n);
        finish(&r[finished]);
        if (!good) break;
        finished++;
    }
    eqnn_csv_close(log);
    if (finished > 0) report(s, r, finished);
    if (finished == n && *s->out && !eqnn_error(s->c)) draw(s, r, n);
    else if (finished < n && !eqnn_error(s->c))
        printf("Interrupted%s.\n", *s->out ? "; the same command with --resume continues" : "");
    for (int i = 0; i < n; i++) free(r[i].answer);
}

static const eqnn_option options[] = {
    { "group", "T(2)", "Trivial(2), T(2), Tx, Ty, SO2(.2), Rx, RxSO2(.3), SE2(.05), or a list" },
    { "study", "off", "Trivial(2), T(2), SO2(.2) and SE2(.05)" },
    { "demo", "off", "digits drawn by this program in the place of --data" },
    { "epochs", "500", "passes over the training images" },
    { "minutes", "0", "of all groups together, test included; 0: as long as the epochs take" },
    { "k", "128", "channels at first" },
    { "num-layers", "6", "convolutions" },
    { "total-ds", ".1", "share of the points that the last layer keeps" },
    { "fill", ".1", "share of the points that are neighbours" },
    { "nbhd", "25", "neighbours drawn at random from these; 0: all" },
    { "liftsamples", "0", "frames of a point; 0: 2 of SE2, else 1" },
    { "lifts", "4", "of SE2: sets of random frames that steps take in turn, for each part" },
    { "bs", "25", "images in a step" },
    { "lr", ".003", "of Adam" },
    { "aug", "on", "turn training images anew" },
    { "n-train", "12000", "training images" },
    { "n-test", "50000", "test images" },
    { "n-check", "500", "of these for the checks while training" },
    { "parts", "2", "that a batch is computed in, each on its thread" },
    { "data-seed", "2021", "of the angles; --seed is that of weights and frames" },
    { "data", "", "folder of MNIST or of mnist_rotation_new" },
    { "out", "build/rotmnist", "folder for tables, pictures and models; empty: none" },
    { "net-config", "{}", "more options, as {'k': 128, 'group': SE2(.05)}" },
    { "split", "--net-config", NULL }, /* {'train': 12000} */
    { "trainer-config", "--net-config", NULL },
    { "train", "--n-train", NULL },
    { "num-epochs", "--epochs", NULL },
    { "log-suffix", "--out", NULL },
    { NULL, NULL, NULL }
};

/* What --resume needs to be told as before. */
static const char repeated[] =
    "demo,total-ds,fill,nbhd,lifts,bs,lr,aug,n-train,data-seed,seed";

static void understand(study *s, eqnn_args *a)
{
    s->groups = eqnn_args_on(a, "study") ? "Trivial(2),T(2),SO2(.2),SE2(.05)"
                                         : eqnn_args_text(a, "group");
    eqnn_args_only(a, !eqnn_args_on(a, "study"), "group", "runs without --study");
    eqnn_args_only(a, !eqnn_args_on(a, "demo"), "data", "runs without --demo");
    eqnn_args_only(a, strstr(s->groups, "SE") != NULL, "liftsamples,lifts", "SE2");
    s->data = eqnn_args_text(a, "data");
    s->out = eqnn_args_text(a, "out");
    s->demo = eqnn_args_on(a, "demo");
    s->aug = eqnn_args_on(a, "aug");
    s->k = eqnn_args_int(a, "k", 4, 100000);
    s->layers = eqnn_args_int(a, "num-layers", 1, MOST_LAYERS);
    s->total = eqnn_args_within(a, "total-ds", 1e-3, 1);
    s->fill = eqnn_args_within(a, "fill", 1e-3, 1);
    s->nbhd = eqnn_args_int(a, "nbhd", 0, 100000);
    s->samples = eqnn_args_int(a, "liftsamples", 0, 64);
    s->lifts = eqnn_args_int(a, "lifts", 1, MOST_LIFTS);
    s->batch = eqnn_args_int(a, "bs", 1, 1000);
    s->rate = eqnn_args_within(a, "lr", 1e-12, 1e3);
    s->count[TRAIN] = eqnn_args_int(a, "n-train", 1, 1000000);
    s->count[TEST] = eqnn_args_int(a, "n-test", 1, 1000000);
    s->n_check = eqnn_args_int(a, "n-check", 1, 1000000);
    s->parts = eqnn_args_int(a, "parts", 1, MOST_PARTS);
    s->data_seed = (uint64_t)eqnn_args_int(a, "data-seed", 1, 2147483647);
    s->run = eqnn_args_run(a, repeated);
    s->run.looks = 20;
    s->context = eqnn_args_context(a);
}

int main(int argc, char **argv)
{
    study s = { 0 };
    eqnn_args a;
    int go = eqnn_args_read(&a, argc, argv, "Tells turned digits apart.", options);
    if (go > 0) understand(&s, &a);
    if ((s.c = eqnn_program_start(&a, &s.context)) != NULL) run_all(&s);
    release(&s);
    return eqnn_program_end(&a, s.c);
}
