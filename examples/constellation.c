/* constellation.c - counting patterns of points: does a network that respects shifts and turns
   learn it from fewer examples?

   cc -O2 -fopenmp -I. examples/constellation.c -lm -o constellation && ./constellation --minutes 10
   (--help lists the options)

   An example is a set of points in the plane: up to two squares, triangles, pentagons and Ls, each
   there with probability 1/2, turned, moved, and with noise; the task is to say how many of each
   there are: four classifications into 0, 1, 2 (eqnn_constellations in eqnn_data.h). What a point
   is told of itself are its distances from the others (--content-type). Compared are

      LieTransformer     attention by what two points have in common under --group, T(2) or SE(2),
                         or a list (Hutchinson et al., ICML 2021, arXiv:2012.10885)
      SetTransformer     attention that knows no symmetry but order, and sees coordinates (Lee et
                         al., ICML 2019, arXiv:1810.00825)

   You will see accuracies, means over examples and the four counts, on the test examples as they
   are (D), moved (T2), and turned and moved (SE2): training examples are moved or turned as well
   with --aug. Beside them stand "the most frequent counts", and what the paper says of 10,000.
   Weights are those with the best accuracy on examples of their own (--n-valid).

   It teaches: attention that knows of two points no more than what the group leaves of them needs
   to see a pattern in one place, and with SE(2) in one orientation, to know it in all; one that
   sees coordinates must be shown each (--aug).

   The data are the published ones (patterns far apart, coordinates stretched to -1..1), but for the
   test examples, which the original draws from the training set, and --aug, whose shifts were equal
   along both axes; --no-published are patterns at random places, as the paper says they are.

   Sizes and settings are those of the original, but for two that are easier here: its --group is
   SE(2) and its --aug SE2. Its 200 epochs of 10,000 examples take hours: --minutes M trains for so
   long, with a rate that falls as a cosine, and --study divides M minutes between both groups and
   SetTransformer, each with 1,000 and 10,000 examples. Options have the names of the paper's
   commands, too.

      constellation --study --minutes 60 --dim-hidden 128 --lr 1e-3 --beta1 .9 --beta2 .999
      constellation --group "SE(2)" --n-train 1000 --aug SE2

   "make test" runs it with
      --network LieTransformer,SetTransformer --group T(2),SE(2)_canonical --reps 1 --n-train 9
      --n-valid 9 --n-test 9 --dim-hidden 64 --train_epochs 1 */

#define EQNN_IMPLEMENTATION
#include "eqnn_data.h"
#include "eqnn_groups.h"

/* ------------------------------------------------------------------------------------------------
   What is studied
   ---------------------------------------------------------------------------------------------- */

enum { MOST_COPIES = 8, MOST_POINTS = 17 * MOST_COPIES, COUNTS = 4, MOST_RUNS = 32 };
enum { MOST_PARTS = 16, MOMENTS = 10, MOST_BATCH = 1024 };
enum { TRAIN, VALID, TEST, SETS };
enum { AS_THEY_ARE, MOVED, TURNED, WAYS };

static const char *const ways[WAYS] = { "none", "T2", "SE2" };

typedef struct examples {
    int n, *present, *count;                 /* [n][points], [n][COUNTS]                         */
    double *pos;                             /* [n][points][2]                                   */
} examples;

typedef struct study {
    /* asked for */
    const char *networks, *groups, *sizes, *content, *out;
    eqnn_lie_transformer_opts lie;
    int samples, set_layers, set_heads, batch, aug, cosine, parts;
    eqnn_run_opts run;                       /* epochs, minutes, looks, resume                   */
    eqnn_constellation_opts patterns;
    int points, classes;                     /* of an example; of a count: none, one, ...        */
    int count[SETS];                         /* of training examples: the most of all runs       */
    double rate, beta1, beta2;
    uint64_t data_seed;
    eqnn_opts context;
    /* the data */
    eqnn_ctx *c;
    examples set[SETS];
} study;

/* What a worker needs for its part of a batch. */
typedef struct part {
    int *example, nodes, label[MOST_BATCH * COUNTS], right;
    double *pos, *feature, loss;             /* of the present points, one after the other       */
    size_t memory;
} part;

typedef struct run {
    const study *s;
    char name[64], group[32];                /* group "": SetTransformer                         */
    int n_train, features;                   /* numbers that a point is told of itself           */
    int samples;                             /* frames of a point                                */
    eqnn_ctx *c;
    eqnn_parts *workers;
    part part[MOST_PARTS];
    eqnn_run *run;
    /* the batch */
    const examples *set;
    const int *items;
    int n, way;
    uint64_t seed;                           /* of the motions                                   */
    /* what came out */
    double budget, epochs, pace, train, test[WAYS], guess;
    int parameters;
    size_t memory;
} run;

/* ------------------------------------------------------------------------------------------------
   Data
   ---------------------------------------------------------------------------------------------- */

static int prepare(study *s)
{
    for (int set = 0; set < SETS && !eqnn_error(s->c); set++) {
        examples *e = &s->set[set];
        eqnn_constellation_opts o = s->patterns;
        size_t n = (size_t)s->count[set], points = (size_t)s->points;
        o.seed = s->data_seed + (uint64_t)set;
        e->n = s->count[set];
        e->pos = malloc(n * points * 2 * sizeof *e->pos);
        e->present = malloc(n * points * sizeof *e->present);
        e->count = malloc(n * COUNTS * sizeof *e->count);
        if (!e->pos || !e->present || !e->count) eqnn_fail(s->c, "no memory for the examples");
        else eqnn_constellations(s->c, &o, 0, e->n, e->pos, e->present, e->count);
    }
    return !eqnn_error(s->c);
}

static void release(study *s)
{
    for (int set = 0; set < SETS; set++) {
        free(s->set[set].pos);
        free(s->set[set].present);
        free(s->set[set].count);
    }
}

/* Accuracy, in the test, of the counts that are the most frequent in training. */
static double most_frequent(const study *s, int n_train)
{
    double right = 0;
    for (int k = 0; k < COUNTS; k++) {
        int seen[MOST_COPIES + 1] = { 0 }, best = 0;
        for (int i = 0; i < n_train; i++) seen[s->set[TRAIN].count[i * COUNTS + k]]++;
        for (int j = 1; j < s->classes; j++)
            if (seen[j] > seen[best]) best = j;
        for (int i = 0; i < s->set[TEST].n; i++)
            right += s->set[TEST].count[i * COUNTS + k] == best;
    }
    return right / (s->set[TEST].n * COUNTS);
}

/* ------------------------------------------------------------------------------------------------
   The networks
   ---------------------------------------------------------------------------------------------- */

/* Appends the present points of an example of the batch. */
static void append(const run *r, eqnn_ctx *c, part *p, int item, int example)
{
    const examples *e = r->set;
    int n = r->s->points;
    const int *present = e->present + (size_t)item * (size_t)n;
    double pos[MOST_POINTS * 2], feature[MOST_POINTS * MOST_POINTS];
    memcpy(pos, e->pos + (size_t)item * (size_t)n * 2, (size_t)n * 2 * sizeof *pos);
    if (r->way != AS_THEY_ARE)
        eqnn_augment(c, r->seed, (uint64_t)item, r->way == TURNED, 1, n, 2, pos);
    if (r->features == n - 1) eqnn_point_distances(n, pos, present, feature);
    if (r->features == MOMENTS) eqnn_point_moments(n, pos, present, MOMENTS, feature);
    if (r->features == 1)
        for (int i = 0; i < n; i++) feature[i] = 1;
    for (int i = 0; i < n; i++) {
        if (!present[i]) continue;
        memcpy(p->pos + 2 * (size_t)p->nodes, pos + 2 * i, 2 * sizeof *pos);
        memcpy(p->feature + (size_t)(p->nodes * r->features), feature + i * r->features,
               (size_t)r->features * sizeof *feature);
        p->example[p->nodes++] = example;
    }
    for (int k = 0; k < COUNTS; k++)
        p->label[example * COUNTS + k] = e->count[item * COUNTS + k];
}

/* One row of logits for each count of each example: [n * COUNTS, classes] */
static eqnn_tensor *network(const run *r, eqnn_ctx *c, const part *p, int n)
{
    const study *s = r->s;
    eqnn_tensor *pos = eqnn_from_double(c, p->nodes, 2, p->pos);
    eqnn_graph_opts all = { .example = p->example, .examples = n, .loops = 1 };
    const eqnn_graph *graph = eqnn_complete_graph(c, p->nodes, &all);
    if (!r->group[0]) {
        eqnn_set_opts o = { .seeds = COUNTS, .out = s->classes, .encoders = s->set_layers,
                            .decoders = s->set_layers, .heads = s->set_heads };
        return eqnn_set_transformer(pos, graph, "model", &o);
    }
    double alpha;
    eqnn_lie_cloud cloud;
    const eqnn_lie *g = eqnn_lie_weighed(c, r->group, &alpha);
    eqnn_tensor *x = eqnn_from_double(c, p->nodes, r->features, p->feature);
    if (!g || !eqnn_lie_cloud_make(g, pos, graph, "lift", r->samples, alpha, &cloud)) return NULL;
    eqnn_tensor *y = eqnn_lie_transformer(eqnn_repeat(x, r->samples), cloud.pairs, cloud.graph,
                                          "model", &s->lie);
    return eqnn_reshape(y, n * COUNTS, s->classes);
}

static eqnn_tensor *look_at(const run *r, eqnn_ctx *c, part *p, const int *items, int n)
{
    p->nodes = 0;
    for (int i = 0; i < n; i++) append(r, c, p, items[i], i);
    return eqnn_error(c) ? NULL : network(r, c, p, n);
}

/* ------------------------------------------------------------------------------------------------
   Training
   ---------------------------------------------------------------------------------------------- */

static void count_right(part *p, const eqnn_tensor *y)
{
    for (int i = 0; i < eqnn_rows(y); i++) {
        int best = 0;
        for (int k = 1; k < eqnn_cols(y); k++)
            if (eqnn_at(y, i, k) > eqnn_at(y, i, best)) best = k;
        p->right += best == p->label[i];
    }
}

/* A worker's part of the batch, with gradients where it is for training. */
static void work(eqnn_ctx *c, int number, int parts, void *user)
{
    run *r = user;
    part *p = &r->part[number];
    int first = r->n * number / parts, n = r->n * (number + 1) / parts - first;
    p->loss = p->right = 0;
    if (n == 0) return;
    eqnn_tensor *y = look_at(r, c, p, r->items + first, n);
    count_right(p, y);
    if (!eqnn_recording(c, 1)) {
        eqnn_recording(c, 0);
        return;
    }
    eqnn_ints *label = eqnn_ints_make(c, n * COUNTS, p->label, r->s->classes, 0);
    eqnn_tensor *loss = eqnn_scale(eqnn_cross_entropy(y, label), (double)n / r->n);
    p->loss = eqnn_value(loss);
    eqnn_backward(loss);
    eqnn_memory m = eqnn_memory_use(c);
    p->memory = m.step_reserved + m.lasting;
}

/* The loss, and how many counts are right. */
static double run_parts(run *r, const examples *set, const int *items, int n, int *right)
{
    double loss = 0;
    r->set = set, r->items = items, r->n = n;
    eqnn_parts_run(r->workers, work, r);
    for (int k = 0; k < r->s->parts; k++) {
        loss += r->part[k].loss;
        *right += r->part[k].right;
    }
    return loss;
}

/* The accuracy on a set, moved or turned by --data-seed. */
static double accuracy(run *r, int set, int way)
{
    int items[MOST_BATCH], right = 0, n = r->s->set[set].n, most = 32 * r->s->parts;
    r->way = way, r->seed = r->s->data_seed + SETS;
    int recording = eqnn_recording(r->c, 0);
    for (int i = 0; i < n && !eqnn_error(r->c) && !eqnn_interrupted(); i += most) {
        int m = n - i < most ? n - i : most;
        for (int k = 0; k < m; k++) items[k] = i + k;
        run_parts(r, &r->s->set[set], items, m, &right);
    }
    eqnn_recording(r->c, recording);
    return (double)right / (n * COUNTS);
}

/* Looks at the validation examples; weights that were never better are kept. */
static void look(run *r, eqnn_csv *log)
{
    double valid = accuracy(r, VALID, r->s->aug);
    if (!eqnn_run_look(r->run, 1 - valid)) return;
    const double row[] = { eqnn_run_epochs(r->run), r->run->seconds / 60,
                           eqnn_average_value(&r->run->loss), eqnn_average_value(&r->run->score),
                           valid };
    eqnn_csv_row(log, r->name, 5, row);
}

static void step(run *r, eqnn_adam *adam, const int *items, int n)
{
    eqnn_schedule schedule = { .kind = r->s->cosine ? EQNN_COSINE : EQNN_CONSTANT,
                               .rate = r->s->rate, .least = 1e-3 * r->s->rate };
    int right = 0;
    eqnn_adam_rate(adam, eqnn_run_rate(r->run, &schedule));
    r->way = r->s->aug, r->seed = eqnn_seed(r->c) + 1000 + (uint64_t)r->run->epoch;
    double loss = run_parts(r, &r->s->set[TRAIN], items, n, &right);
    eqnn_adam_step(adam);
    eqnn_reset(r->c);
    eqnn_average_add(&r->run->score, (double)right / (n * COUNTS), n);
    eqnn_run_step(r->run, loss, n);
    eqnn_run_show(r->run, "loss %.3f, right %.3f, valid %.3f", eqnn_average_value(&r->run->loss),
                  eqnn_average_value(&r->run->score), 1 - r->run->value);
}

/* ------------------------------------------------------------------------------------------------
   One row of the table
   ---------------------------------------------------------------------------------------------- */

static int make_part(const run *r, part *p)
{
    size_t most = (size_t)(r->s->batch > 32 ? r->s->batch : 32) * (size_t)r->s->points;
    p->example = malloc(most * sizeof *p->example);
    p->pos = malloc(most * 2 * sizeof *p->pos);
    p->feature = malloc(most * (size_t)r->features * sizeof *p->feature);
    return p->example && p->pos && p->feature;
}

/* Weights come into being by a look at one example, which leaves nothing else behind. */
static int start(run *r)
{
    const study *s = r->s;
    int item = 0;
    r->c = eqnn_make(&s->context);
    r->features = !strcmp(s->content, "constant") ? 1
                  : !strcmp(s->content, "distance_moments") ? MOMENTS : s->points - 1;
    r->epochs = 0, r->pace = r->train = NAN;
    for (int k = 0; k < WAYS; k++) r->test[k] = NAN;
    for (int k = 0; k < s->parts; k++)
        if (!make_part(r, &r->part[k])) return 0;
    if (!r->c) return 0;
    eqnn_mark mark = eqnn_mark_make(r->c);
    r->set = &s->set[TRAIN], r->way = AS_THEY_ARE;
    eqnn_rewind(mark, look_at(r, r->c, &r->part[0], &item, 1));
    r->parameters = (int)eqnn_parameter_size(r->c);
    r->workers = eqnn_parts_make(r->c, s->parts, s->context.threads);
    return 1;
}

static void finish(run *r)
{
    eqnn_run_free(r->run);
    eqnn_parts_free(r->workers);
    for (int k = 0; k < MOST_PARTS; k++) {
        r->memory += r->part[k].memory;
        free(r->part[k].example);
        free(r->part[k].pos);
        free(r->part[k].feature);
    }
    eqnn_free(r->c);
    r->workers = NULL, r->c = NULL, r->run = NULL;
}

static void train(run *r, eqnn_csv *log)
{
    const study *s = r->s;
    const int *items;
    eqnn_adam_opts o = { .rate = s->rate, .beta1 = s->beta1, .beta2 = s->beta2 };
    eqnn_run_opts how = s->run;
    how.batch = s->batch, how.seconds = r->budget;
    how.path = eqnn_path_in(s->c, s->out, "%s.safetensors", r->name);
    r->run = eqnn_run_make(r->c, r->name, r->n_train, &how);
    eqnn_adam *adam = eqnn_adam_make(r->c, &o);
    for (int n; (n = eqnn_run_next(r->run, &items)) >= 0;) {
        if (n > 0) step(r, adam, items, n);
        else look(r, log);
    }
    if (!r->run) return;
    r->epochs = eqnn_run_epochs(r->run), r->pace = eqnn_run_pace(r->run);
    r->train = eqnn_average_value(&r->run->score);
    eqnn_run_best(r->run);
}

/* The budget is for the test, too: three looks at it are about as many as the validation's. */
static int study_one(run *r, eqnn_csv *log, double seconds)
{
    const study *s = r->s;
    if (!start(r)) return eqnn_fail(s->c, "no memory for %s", r->name), 0;
    r->guess = most_frequent(s, r->n_train);
    if (seconds > 0) {
        double begin = eqnn_clock();
        accuracy(r, VALID, s->aug);
        double spent = eqnn_clock() - begin, test = WAYS * spent * s->set[TEST].n / s->set[VALID].n;
        r->budget = fmax(seconds - spent - test, 0.1 * seconds);
    }
    train(r, log);
    for (int k = 0; k < WAYS && !eqnn_interrupted(); k++) r->test[k] = accuracy(r, TEST, k);
    r->memory = eqnn_memory_use(r->c).lasting;
    if (eqnn_error(r->c)) eqnn_fail(s->c, "%s: %s", r->name, eqnn_error(r->c));
    return !eqnn_error(s->c) && !eqnn_interrupted();
}

/* ------------------------------------------------------------------------------------------------
   Tables and pictures
   ---------------------------------------------------------------------------------------------- */

/* The paper's accuracy with 10,000 examples: trained one way, tested another. */
static double published(const run *r, int trained, int tested)
{
    static const double value[3][WAYS][WAYS] = {
        { { .58, .44, .44 }, { NAN, .61, .51 }, { NAN, NAN, .55 } },   /* SetTransformer */
        { { .75, .75, .63 }, { NAN, .75, .63 }, { NAN, NAN, .70 } },   /* T(2)           */
        { { .71, .71, .69 }, { NAN, .71, .69 }, { NAN, NAN, .72 } } }; /* SE(2)          */
    int row = !r->group[0] ? 0 : r->group[0] == 'T' && r->group[1] != 'r' ? 1
              : r->group[0] == 'S' && r->group[1] == 'E' ? 2 : -1;
    return row < 0 || r->s->patterns.copies != 2 ? NAN : value[row][trained][tested];
}

static void report(const study *s, const run *r, int n)
{
    eqnn_table *t = eqnn_table_make(s->c, "network|examples|parameters|epochs|ms a step|MB|train|"
                                          "test D|T2|SE2|paper D|T2|SE2");
    for (int i = 0; i < n; i++) {
        int again = 0;
        for (int k = 0; k < i; k++) again |= r[k].n_train == r[i].n_train;
        if (again) continue;
        eqnn_table_cell(t, "the most frequent counts");
        eqnn_table_cell(t, "%d", r[i].n_train);
        for (int k = 0; k < 5; k++) eqnn_table_cell(t, "-");
        for (int k = 0; k < WAYS; k++) eqnn_table_number(t, "%.3f", r[i].guess);
        for (int k = 0; k < WAYS; k++) eqnn_table_cell(t, "-");
    }
    for (int i = 0; i < n; i++) {
        eqnn_table_cell(t, "%s%s", r[i].group[0] ? "LieTransformer " : "SetTransformer",
                        r[i].group);
        eqnn_table_cell(t, "%d", r[i].n_train);
        eqnn_table_cell(t, "%d", r[i].parameters);
        eqnn_table_number(t, "%.1f", r[i].epochs);
        eqnn_table_number(t, "%.0f", 1e3 * r[i].pace);
        eqnn_table_number(t, "%.0f", (double)r[i].memory / 1048576);
        eqnn_table_number(t, "%.3f", r[i].train);
        for (int k = 0; k < WAYS; k++) eqnn_table_number(t, "%.3f", r[i].test[k]);
        for (int k = 0; k < WAYS; k++) eqnn_table_number(t, "%.2f", published(&r[i], s->aug, k));
    }
    eqnn_table_print(t, stdout);
    eqnn_table_free(t);
    printf("Accuracies on %d test examples; trained with --aug %s. The paper's are of 10,000.\n",
           s->set[TEST].n, ways[s->aug]);
}

static void draw(const study *s, const run *r, int n)
{
    eqnn_plot *p = eqnn_plot_make(s->c, &(eqnn_plot_opts){ .title = "Counting patterns",
        .x_label = "minutes", .y_label = "share of right counts, validation" });
    eqnn_csv *f = eqnn_csv_open(s->c, eqnn_path_in(s->c, s->out, "summary.csv"),
                                "network,examples,parameters,epochs,ms_per_step,train,test,"
                                "test_moved,test_turned,most_frequent", 0);
    for (int i = 0; i < n; i++) {
        eqnn_plot_csv(p, eqnn_path_in(s->c, s->out, "log.csv"), r[i].name, 2, 5, NULL);
        eqnn_csv_text(f, r[i].name);
        eqnn_csv_number(f, r[i].n_train);
        eqnn_csv_number(f, r[i].parameters);
        eqnn_csv_number(f, r[i].epochs);
        eqnn_csv_number(f, 1e3 * r[i].pace);
        eqnn_csv_number(f, r[i].train);
        for (int k = 0; k < WAYS; k++) eqnn_csv_number(f, r[i].test[k]);
        eqnn_csv_number(f, r[i].guess);
        eqnn_csv_end(f);
    }
    eqnn_csv_close(f);
    eqnn_plot_save(p, eqnn_path_in(s->c, s->out, "accuracy.svg"));
    eqnn_plot_free(p);
    if (!eqnn_error(s->c)) printf("Tables, pictures and models are in %s.\n", s->out);
}

/* ------------------------------------------------------------------------------------------------
   The program
   ---------------------------------------------------------------------------------------------- */

/* SE(2)_canonical, finite turns, is told their number and has as many frames: 2 as published. */
static void settle_frames(run *r)
{
    size_t length = strlen(r->group);
    const char *turns = strstr(r->group, "canonical("), *finite = strstr(r->group, "canonical");
    int n = turns ? atoi(turns + 10) : finite ? 2 : 1;
    r->samples = r->s->samples ? r->s->samples : n;
    if (finite && !turns)
        snprintf(r->group + length, sizeof r->group - length, "(%d)", r->samples);
}

/* SQ and RxSQ turn the quarter of the plane where both coordinates are positive. */
static void check_group(eqnn_ctx *c, const char *group)
{
    double alpha;
    const eqnn_lie *g = eqnn_lie_weighed(c, group, &alpha);
    if (g && eqnn_lie_point_dim(g) != 2)
        eqnn_fail(c, "--group %s does not act on the plane", group);
    if (g && strstr(eqnn_lie_name(g), "SQ"))
        eqnn_fail(c, "--group %s acts on points of positive coordinates only, and constellations "
                  "lie around the origin", group);
}

static void add_run(study *s, run *r, int *n, const char *group, int length, int n_train)
{
    if (*n == MOST_RUNS || length + 5 > (int)sizeof r->group) {
        eqnn_fail(s->c, "--group '%.*s': too many runs, or too long a name", length, group);
        return;
    }
    run *q = &r[(*n)++];
    q->s = s, q->n_train = n_train;
    memcpy(q->group, group, (size_t)length);
    settle_frames(q);
    if (length) check_group(s->c, q->group);
    snprintf(q->name, sizeof q->name, "%s-%d", length ? q->group : "SetTransformer", n_train);
    if (n_train > s->count[TRAIN]) s->count[TRAIN] = n_train;
}

/* Every number of examples, with every network and group. */
static int list_runs(study *s, run *r)
{
    const char *size, *word, *group, *sizes = s->sizes;
    int n = 0;
    for (int length; (length = eqnn_next_word(&sizes, &size)) > 0 && !eqnn_error(s->c);) {
        char *end;
        long n_train = strtol(size, &end, 10);
        const char *networks = s->networks;
        if (end != size + length || n_train < 1 || n_train > 10000000)
            eqnn_fail(s->c, "--n-train '%.*s': from 1 to 10000000", length, size);
        for (int m; (m = eqnn_next_word(&networks, &word)) > 0 && !eqnn_error(s->c);) {
            const char *groups = s->groups;
            if (m == 14 && !strncmp(word, "SetTransformer", 14))
                add_run(s, r, &n, "", 0, (int)n_train);
            else if (m == 14 && !strncmp(word, "LieTransformer", 14))
                for (int k; (k = eqnn_next_word(&groups, &group)) > 0;)
                    add_run(s, r, &n, group, k, (int)n_train);
            else eqnn_fail(s->c, "--network %s: LieTransformer or SetTransformer", s->networks);
        }
    }
    return n;
}

static void run_all(study *s)
{
    static run r[MOST_RUNS];
    int n = list_runs(s, r), finished = 0;
    eqnn_csv *log = NULL;
    if (eqnn_error(s->c) || !prepare(s)) return;
    if (*s->out && eqnn_make_folder(s->c, s->out))
        log = eqnn_csv_open(s->c, eqnn_path_in(s->c, s->out, "log.csv"),
                            "network,epoch,minutes,loss,train,valid", s->run.resume);
    for (int i = 0; i < n && *s->out && !s->run.resume; i++)
        eqnn_run_forget(eqnn_path_in(s->c, s->out, "%s.safetensors", r[i].name));
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
}

static const eqnn_option options[] = {
    { "network", "LieTransformer", "LieTransformer, SetTransformer, or both" },
    { "group", "T(2)", "of LieTransformer: T(2), SE(2), SO(2), SE(2)_canonical, ... or a list" },
    { "study", "off", "T(2), SE(2) and SetTransformer with 1000 and 10000 examples" },
    { "n-train", "10000", "training examples, or a list" },
    { "n-valid", "500", "examples that choose the best weights" },
    { "n-test", "1000", "test examples" },
    { "epochs", "200", "passes over the training examples" },
    { "minutes", "0", "of all runs together, test included; 0: as long as the epochs take" },
    { "aug", "none", "how training examples are moved: none, T2 or SE2" },
    { "published", "on", "the original's coordinates" },
    { "reps", "2", "most copies of a pattern" },
    { "drop", ".5", "probability that a copy is absent" },
    { "rotation", ".33", "largest angle of a pattern, in half turns" },
    { "upscale", "0", "a pattern is up to so much larger than 1" },
    { "noise", ".1", "of coordinates" },
    { "content-type", "pairwise_distances", "or distance_moments, constant: what a point is told" },
    { "lift-samples", "0", "frames of a point; 0: 1, of SE(2)_canonical(n) n" },
    { "dim-hidden", "512", "channels of LieTransformer" },
    { "num-layers", "6", "its blocks" },
    { "num-heads", "8", "its heads" },
    { "kernel-type", "mlp", "its logits: mlp, relative_position, dot_product_only, 2232, ..." },
    { "kernel-dim", "16", "hidden numbers of the network of positions, where it has one" },
    { "attention-fn", "softmax", "or dot_product, or norm_exp; 2232, ...: as they say" },
    { "block-norm", "layer_pre", "or none, layer_post, batch_pre, batch_post" },
    { "architecture", "model_1", "its head: model_1 or lieconv" },
    { "set-layers", "4", "encoders and decoders of SetTransformer" },
    { "set-heads", "4", "its heads" },
    { "bs", "128", "examples in a step" },
    { "lr", "1e-4", "of Adam" },
    { "beta1", ".5", "of Adam" },
    { "beta2", ".9", "of Adam" },
    { "lr-schedule", "", "none or cosine; default none, with --minutes cosine" },
    { "parts", "2", "that a batch is computed in, each on its thread" },
    { "data-seed", "1234", "of the examples; --seed is that of weights and frames" },
    { "data", NULL, NULL },
    { "out", "build/constellation", "folder for tables, pictures and models; empty: none" },
    { "train-epochs", "--epochs", NULL },
    { "learning-rate", "--lr", NULL },
    { "batch-size", "--bs", NULL },
    { "liftsamples", "--lift-samples", NULL },
    { "model-seed", "--seed", NULL },
    { "run-name", "--out", NULL },
    { NULL, NULL, NULL }
};

/* What --resume needs to be told as before. */
static const char repeated[] =
    "n-valid,aug,published,content-type,kernel-type,attention-fn,block-norm,"
    "bs,lr,beta1,beta2,data-seed,seed,reps,drop,rotation,upscale,noise";

/* Of the library's options 0 means the default, and what is negative none. */
static void understand_patterns(study *s, eqnn_args *a)
{
    double drop = eqnn_args_within(a, "drop", 0, 1);
    double rotation = eqnn_args_within(a, "rotation", 0, 1);
    double noise = eqnn_args_within(a, "noise", 0, 1e3);
    s->patterns = (eqnn_constellation_opts){ .published = eqnn_args_on(a, "published"),
        .copies = eqnn_args_int(a, "reps", 1, MOST_COPIES), .drop = drop > 0 ? drop : -1,
        .rotation = rotation > 0 ? rotation : -1, .noise = noise > 0 ? noise : -1,
        .upscale = eqnn_args_within(a, "upscale", 0, 1e3) };
    s->points = 17 * s->patterns.copies;
    s->classes = s->patterns.copies + 1;
}

static void understand_network(study *s, eqnn_args *a)
{
    eqnn_lie_transformer_opts *o = &s->lie;
    int kernel_dim = eqnn_args_int(a, "kernel-dim", 1, 10000);
    o->attention.kernel = eqnn_args_text(a, "kernel-type");
    if (eqnn_args_given(a, "attention-fn")) /* a kernel of digits has its own */
        o->attention.attention = eqnn_args_text(a, "attention-fn");
    o->attention.heads = eqnn_args_int(a, "num-heads", 1, 1000);
    if (eqnn_args_given(a, "kernel-dim")) o->attention.kernel_dim = kernel_dim; /* not all have M */
    o->norm = eqnn_args_text(a, "block-norm");
    o->head = eqnn_args_text(a, "architecture");
    o->cols = eqnn_args_int(a, "dim-hidden", 1, 100000);
    o->layers = eqnn_args_int(a, "num-layers", 1, 100);
    o->out = COUNTS * s->classes;
    s->content = eqnn_args_text(a, "content-type");
    eqnn_args_choice(a, "content-type", "pairwise_distances,distance_moments,constant");
    s->samples = eqnn_args_int(a, "lift-samples", 0, 64);
    s->set_layers = eqnn_args_int(a, "set-layers", 1, 100);
    s->set_heads = eqnn_args_int(a, "set-heads", 1, 128);
    eqnn_args_only(a, strstr(s->networks, "LieTransformer") != NULL,
                   "group,content-type,lift-samples,dim-hidden,num-layers,num-heads,kernel-type,"
                   "kernel-dim,attention-fn,block-norm,architecture", "LieTransformer");
    eqnn_args_only(a, strstr(s->networks, "SetTransformer") != NULL, "set-layers,set-heads",
                   "SetTransformer");
}

static void understand(study *s, eqnn_args *a)
{
    int studied = eqnn_args_on(a, "study");
    s->networks = studied ? "LieTransformer,SetTransformer" : eqnn_args_text(a, "network");
    s->groups = studied ? "T(2),SE(2)" : eqnn_args_text(a, "group");
    s->sizes = studied ? "1000,10000" : eqnn_args_text(a, "n-train");
    eqnn_args_only(a, !studied, "network,group,n-train", "runs without --study");
    s->out = eqnn_args_text(a, "out");
    s->aug = eqnn_args_choice(a, "aug", "none,T2,SE2");
    s->count[VALID] = eqnn_args_int(a, "n-valid", 1, 1000000);
    s->count[TEST] = eqnn_args_int(a, "n-test", 1, 1000000);
    s->run = eqnn_args_run(a, repeated);
    s->run.looks = 40;
    s->batch = eqnn_args_int(a, "bs", 1, MOST_BATCH);
    s->rate = eqnn_args_within(a, "lr", 1e-12, 1e3);
    s->beta1 = eqnn_args_within(a, "beta1", 1e-9, 1);
    s->beta2 = eqnn_args_within(a, "beta2", 1e-9, 1);
    s->cosine = s->run.seconds > 0;
    if (*eqnn_args_text(a, "lr-schedule"))
        s->cosine = eqnn_args_choice(a, "lr-schedule", "none,cosine");
    s->parts = eqnn_args_int(a, "parts", 1, MOST_PARTS);
    s->data_seed = (uint64_t)eqnn_args_int(a, "data-seed", 1, 2147483647);
    s->context = eqnn_args_context(a);
    understand_patterns(s, a);
    understand_network(s, a);
}

int main(int argc, char **argv)
{
    study s = { 0 };
    eqnn_args a;
    int go = eqnn_args_read(&a, argc, argv, "Counts patterns of points.", options);
    if (go > 0) understand(&s, &a);
    if ((s.c = eqnn_program_start(&a, &s.context)) != NULL) run_all(&s);
    release(&s);
    return eqnn_program_end(&a, s.c);
}
