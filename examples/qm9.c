/* qm9.c - properties of molecules by LieConv, LieTransformer and Equiformers: QM9

   cc -O2 -fopenmp -I. examples/qm9.c -lm -o qm9 && ./qm9 --data FOLDER   (--help lists the options)

   A network sees where the atoms of a molecule are and which elements they are, and is asked for
   one of twelve properties (--task alpha gap homo lumo mu Cv G H r2 U U0 zpve). The molecule may
   stand anywhere, turned in any way. Two models lift each atom to elements of a Lie group, and what
   they know of two of them is what no element of the group changes:

      --model lieconv         convolutions (Finzi, Stanton, Izmailov, Wilson 2020, arXiv:2002.12880)
      --model lietransformer  attention (Hutchinson et al. 2021, arXiv:2012.10885)
      --group "T(3)"          sees no shifts; "SE3(.2)" no turns either (alpha .2 weighs a turn
                              against a shift where neighbours are chosen); "SO3(.2)", "Trivial(3)"
      --aug                   training turns and moves molecules at random, which teaches what the
                              group does not promise
      --use-pseudo-lift       attention sees quaternions, which have no jump at half a turn, in the
                              place of their logarithms, which have

   Four more have numbers, vectors and higher irreps at the atoms, which turn with the molecule,
   and hear the atoms within 5 angstroms:

      --model equiformer      as the package equiformer-pytorch has it
      --model equiformer_v1   as the paper has it (Liao and Smidt 2023, arXiv:2206.11990)
      --model equiformer_v2   its successor (Liao et al. 2024, arXiv:2306.12059)
      --model escn            where that has its frames from (Passaro and Zitnick 2023,
                              arXiv:2302.03655); without attention
      --widths 32,16,8        channels of degrees 0, 1 and 2; equiformer_v2 and escn take the first
                              for all degrees up to --lmax
      --published             as large as the papers have them; without it they are small enough for
                              an hour on two cores
      --norm-floor 1          what a molecule's symmetry makes vanish (CO2, CH4) is not blown up by
                              their norms, and what fades out with distance does so smoothly; the
                              papers have none, and neither have the numbers in README.md

   --model and --group may be lists. You will see the mean absolute error of molecules never seen,
   as they stand and turned at random, beside what the mean of all and a linear fit of the numbers
   of atoms reach, and beside what the papers report of 100,000 training molecules and 500 epochs
   (LieConv, LieTransformer) or 110,000 and 300 (Equiformer). --study runs T(3) and SE(3) with the
   first two models, and the other four.

   It teaches: to ask what symmetry is worth, give the same molecules and the same time to models
   that are built with it and to those that are taught it by turned examples, and look at what is
   known without any place. A model is one function: the program around it is the same for all.

   Training runs for --minutes, or for --epochs if those are given: Adam on the mean absolute error
   of (y - mean) / deviation, its rate min(100 t, 1) max((1 + cos(pi t)) / 2, .001) of --lr at the
   share t of the run, or another --lr-schedule: quadratic_warmup is min(100 t, 1) / sqrt(1 + 10000
   t). Weights that were best on the validation molecules are tested. Each batch is
   cut into --parts, which different threads work on; batch norms see one part (--parts 1: all).

   --data is the folder of dsgdb9nsd.xyz.tar, or of the files dsgdb9nsd_000001.xyz ... that are in
   it, or of an npz file (see below), and of uncharacterized.txt, if it is there: the list of 3,054
   molecules whose bonds changed when they were optimised, which are left out; 130,831 remain.

   "make test" runs it with
      --demo --study --epochs 1 --n-train 8 --n-valid 4 --n-test 4 --k 16 --dim-hidden 16 --bs 4
      --use-pseudo-lift --dual-quaternions --positive-quaternions --max-sample-norm 60 */

#define EQNN_IMPLEMENTATION
#include "eqnn_data.h"
#include "eqnn_groups.h"

static const char where_from[] =
    "the data set is published at https://doi.org/10.6084/m9.figshare.c.978904: --data wants the "
    "folder of dsgdb9nsd.xyz.tar (dsgdb9nsd.xyz.tar.bz2 after bunzip2) or of its files "
    "dsgdb9nsd_000001.xyz ..., and of uncharacterized.txt; or of qm9.npz with the arrays index, "
    "n_atoms, z, pos and targets. --demo trains on generated molecules";

/* ------------------------------------------------------------------------------------------------
   What is studied
   ---------------------------------------------------------------------------------------------- */

enum { TEST, VALID, TRAIN, SETS };           /* parts of the data                               */
enum { MOST_RUNS = 16, MOST_PARTS = 64, ELEMENTS = 5, FEATURES = 15 };

typedef struct study {
    /* asked for */
    const char *models, *groups, *task, *data, *out;
    int demo, aug, parts, count[SETS];
    eqnn_run_opts run;                       /* epochs, minutes, looks, resume                   */
    int samples, nbhd, batch, recenter;      /* negative: what suits the group                   */
    double fill, rate, clip;                 /* the same                                         */
    int k, layers, dim, heads, kernel_dim, feature_dim, squash, lmax, published, save;
    int elements, dual, positive;            /* pairs are elements, not logarithms: see between()*/
    double max_norm, norm_floor;
    const char *widths;
    eqnn_schedule schedule;                  /* for a rate of 1                                  */
    const char *kernel, *attention, *head, *norm;
    uint64_t data_seed;
    eqnn_opts context;
    /* the data */
    eqnn_ctx *c;
    eqnn_molecules *m;
    double *y, *features;                    /* [molecules], [atoms][FEATURES]                   */
    int *items, first[SETS + 1];             /* which molecules are in which set                 */
    const char *unit;
    double shown;                            /* errors are shown times this: eV as meV           */
    double mean, deviation;                  /* of y in training                                 */
    double centre[3], spread;                /* of the positions                                 */
    double plain[2];                         /* test errors of the mean and of the linear fit    */
} study;

/* Molecules as a network gets them: atoms one after the other. */
typedef struct batch {
    eqnn_ctx *c;
    int molecules, atoms;
    int *charge, *example;                   /* [atoms]: of the nucleus; whose atom              */
    eqnn_tensor *pos, *features;             /* [atoms,3], [atoms,FEATURES]                      */
} batch;

typedef struct run run;

/* An Equiformer's --widths, --num-layers, --lmax, --bs and --lr where they are not asked for. */
typedef struct sizes { const char *widths; int layers, lmax, batch; double rate; } sizes;

/* A model is a function from molecules to one number each, [molecules,1]; grouped: of a --group. */
typedef struct network {
    const char *name;
    int grouped;
    double rate, beta1, beta2;               /* of Adam                                          */
    eqnn_tensor *(*predict)(const run *r, const batch *b);
    sizes size[2];                           /* of Equiformers: for an hour; with --published    */
} network;

/* What a worker needs for its part of a batch. */
typedef struct part {
    batch b;
    double *pos, *features, *y, loss;
    size_t memory;
} part;

struct run {
    const study *s;
    const network *net;
    char group[32], name[64];
    eqnn_ctx *c;                             /* of the weights                                   */
    eqnn_parts *workers;
    eqnn_run *run;
    part part[MOST_PARTS];
    int samples, nbhd, batch, recenter, layers, lmax;
    const char *widths;
    double fill, rate;
    /* a batch */
    const int *items;
    int n, turned;
    uint64_t seed;                           /* of the turns                                     */
    double *out;                             /* [n]: gets the predictions, or NULL               */
    /* what came out */
    double test, test_turned;
    double *predicted;                       /* [test molecules]                                 */
};

/* ------------------------------------------------------------------------------------------------
   The models
   ---------------------------------------------------------------------------------------------- */

/* Over lifted atoms with all pairs of a molecule. */
static eqnn_tensor *convolve(const run *r, const batch *b)
{
    double alpha;
    eqnn_lie_cloud cloud;
    eqnn_graph_opts pairs = { .loops = 1, .example = b->example, .examples = b->molecules };
    const eqnn_graph *all = eqnn_complete_graph(b->c, b->atoms, &pairs);
    const eqnn_lie *g = eqnn_lie_weighed(b->c, r->group, &alpha);
    eqnn_lie_resnet_opts o = { .conv = { .norm = 1, .fill = r->fill, .most = r->nbhd },
                               .layers = r->layers, .width = r->s->k };
    if (!eqnn_lie_cloud_make(g, b->pos, all, "lift", r->samples, alpha, &cloud)) return NULL;
    return eqnn_lie_resnet(eqnn_repeat(b->features, r->samples), &cloud, "net", 1, &o);
}

/* What the lifts of an edge's ends have in common, as numbers without a jump at half a turn: the
   element itself and not its logarithm. A rotation is a quaternion q (or -q: positive takes the one
   with w >= 0), a shift t of SE(3) stands behind it as it is or, dual, as (0,t) q / 2. Behind these
   the orbits of target and source, as in eqnn_lie_pairs. */
static eqnn_tensor *between(const study *s, const eqnn_lie *g, eqnn_tensor *u, eqnn_tensor *q,
                            const eqnn_graph *graph)
{
    eqnn_tensor *e = eqnn_lie_between(g, u, graph);
    if (!e) return NULL;
    if (s->positive) e = eqnn_lie_near(g, e);
    if (s->dual && eqnn_lie_dim(g) == 6) {
        const eqnn_lie *turns = eqnn_lie_make(eqnn_context(e), "SO(3)");
        eqnn_tensor *turn = eqnn_slice(e, 0, 4), *shift = eqnn_slice(e, 4, 3);
        shift = eqnn_concat(eqnn_scale(eqnn_slice(e, 0, 1), 0), shift);
        e = eqnn_concat(turn, eqnn_scale(eqnn_lie_product(turns, shift, turn), .5));
    }
    if (!q) return e;
    e = eqnn_concat(e, eqnn_gather_target(q, graph));
    return eqnn_concat(e, eqnn_gather(q, graph));
}

/* Whom an atom listens to, all of its molecule or nbhd drawn from the nbhd / fill nearest, and what
   each pair has in common. */
static eqnn_tensor *pairs_of(const run *r, const batch *b, const int *example, const char *name,
                             const eqnn_graph **graph)
{
    const study *s = r->s;
    double alpha;
    int n = b->atoms * r->samples;
    const eqnn_lie *g = eqnn_lie_weighed(b->c, r->group, &alpha);
    eqnn_tensor *u, *q;
    if (!g || !eqnn_lie_lift(g, b->pos, name, r->samples, &u, &q)) return NULL;
    eqnn_graph_opts all = { .loops = 1, .example = example, .examples = b->molecules };
    eqnn_lie_graph_opts near = { .nearest = (int)(r->nbhd / r->fill), .most = r->nbhd,
                                 .example = example, .examples = b->molecules };
    *graph = r->nbhd ? eqnn_lie_graph(g, u, q, alpha, &near) : eqnn_complete_graph(b->c, n, &all);
    return s->elements ? between(s, g, u, q, *graph) : eqnn_lie_pairs(g, u, q, *graph);
}

/* With --max-sample-norm atoms are lifted anew, 99 times at most, until no pair is longer. */
static eqnn_tensor *attend(const run *r, const batch *b)
{
    const study *s = r->s;
    const eqnn_graph *graph = NULL;
    size_t n = (size_t)b->atoms * (size_t)r->samples;
    eqnn_lie_transformer_opts o = {
        .attention = { .kernel = s->kernel, .attention = s->attention, .heads = s->heads,
                       .kernel_dim = s->kernel_dim, .feature_dim = s->feature_dim },
        .norm = s->norm, .cols = s->dim, .layers = r->layers, .head = s->head,
        .squash = s->squash };
    int *example = malloc((n + 1) * sizeof *example);
    if (!example) return eqnn_fail(b->c, "no memory for %d atoms", b->atoms), NULL;
    for (size_t i = 0; i < n; i++) example[i] = b->example[i / (size_t)r->samples];
    eqnn_tensor *pairs = pairs_of(r, b, example, "lift", &graph);
    for (int k = 1; k < 100 && s->max_norm > 0 && pairs; k++) {
        if (eqnn_value(eqnn_max_rows(eqnn_norm(pairs))) <= s->max_norm) break;
        pairs = pairs_of(r, b, example, eqnn_format(b->c, "lift%d", k), &graph);
    }
    free(example);
    eqnn_tensor *x = eqnn_repeat(b->features, r->samples);
    return eqnn_lie_transformer(x, pairs, graph, "net", &o);
}

/* What QM9 has on average, as the Equiformers' papers count it, and how far their atoms hear. */
static const double mean_atoms = 18.03065905448718, mean_neighbours = 15.57930850982666;
static const double radius = 5;
enum { HEADS = 4 }; /* of their attentions; a head has widths / HEADS channels */

static const eqnn_graph *near(const batch *b)
{
    eqnn_graph_opts o = { .example = b->example, .examples = b->molecules };
    return eqnn_radius_graph(b->pos, radius, &o);
}

/* 0 to 4: H, C, N, O, F */
static eqnn_ints *elements(const batch *b)
{
    int *kind = malloc(((size_t)b->atoms + 1) * sizeof *kind);
    for (int i = 0; kind && i < b->atoms; i++)
        kind[i] = b->charge[i] == 1 ? 0 : b->charge[i] - 5;
    eqnn_ints *ints = kind ? eqnn_ints_make(b->c, b->atoms, kind, ELEMENTS, 0) : NULL;
    free(kind);
    return ints;
}

/* Widths "128,64" as "128x0e+64x1e", or divided by HEADS as "32x0e+16x1e"; as a list "32,16". */
static const char *widths_of(const run *r, const batch *b, int share, int list)
{
    const char *text = "", *widths = r->widths, *word;
    for (int l = 0; eqnn_next_word(&widths, &word) > 0; l++) {
        int n = (int)strtol(word, NULL, 10), own = share > 1 && n > 0 && n < share ? 1 : n / share;
        text = list ? eqnn_format(b->c, "%s%s%d", text, l ? "," : "", own)
                    : eqnn_format(b->c, "%s%s%dx%de", text, l ? "+" : "", own, l);
    }
    return text;
}

/* The package's network ends in features of the atoms; here numbers made of them are summed. */
static eqnn_tensor *hear(const run *r, const batch *b)
{
    const eqnn_graph *g = near(b);
    eqnn_equiformer_opts o = { .dim = widths_of(r, b, 1, 1), .dim_head = widths_of(r, b, HEADS, 1),
                               .heads = "4", .depth = r->layers, .envelope = radius,
                               .norm_floor = r->s->norm_floor };
    eqnn_tensor *x = eqnn_equiformer(NULL, elements(b), b->pos, g, "net", &o);
    x = x ? eqnn_as(eqnn_extract_irrep(x, 0, 1), NULL) : NULL;
    x = x ? eqnn_mlp(x, "head", eqnn_format(b->c, "%d,1", eqnn_cols(x)), NULL) : NULL;
    return x ? eqnn_scale(eqnn_pool_sum(x, g), 1 / mean_atoms) : NULL;
}

static eqnn_tensor *hear_v1(const run *r, const batch *b)
{
    eqnn_equiformer_v1_opts o;
    if (!eqnn_equiformer_v1_preset(b->c, "qm9", &o)) return NULL;
    if (!r->s->published) o.alpha_drop = 0;
    o.node = widths_of(r, b, 1, 0);
    o.head = widths_of(r, b, HEADS, 0);
    o.feature = eqnn_format(b->c, "%dx0e", 4 * (int)strtol(r->widths, NULL, 10));
    o.layers = r->layers, o.heads = HEADS, o.radius = radius;
    o.norm_floor = r->s->norm_floor;
    return eqnn_equiformer_v1(elements(b), b->pos, near(b), "net", &o);
}

/* With 96 channels, as published: 48 within an attention, 64 of a head's logits and 24 of its
   values. */
static eqnn_tensor *hear_v2(const run *r, const batch *b)
{
    int n = (int)strtol(r->widths, NULL, 10);
    int grid = r->s->published ? 18 : 0;
    eqnn_equiformer_v2_opts o = {
        .lmax = r->lmax, .mmax = r->lmax, .blocks = r->layers, .channels = n, .hidden = (n + 1) / 2,
        .heads = HEADS, .alpha = (2 * n + 2) / 3, .value = (n + 3) / 4, .ffn = n,
        .edge_channels = (2 * n + 2) / 3, .gaussians = 128, .radius = radius, .beta = grid,
        .points = grid, .nodes = mean_atoms, .neighbours = mean_neighbours,
        .norm_floor = r->s->norm_floor };
    return eqnn_equiformer_v2(elements(b), b->pos, near(b), "net", &o);
}

static eqnn_tensor *hear_escn(const run *r, const batch *b)
{
    int n = (int)strtol(r->widths, NULL, 10);
    eqnn_escn_opts o = {
        .lmax = r->lmax, .mmax = r->lmax < 2 ? r->lmax : 2, .layers = r->layers, .channels = n,
        .hidden = 2 * n, .edge_channels = n, .gaussians = 128, .radius = radius,
        .scale = 1 / mean_atoms };
    return eqnn_escn(elements(b), b->pos, near(b), "net", &o);
}

static const network networks[] = {
    { "lieconv", 1, 3e-3, .9, .999, convolve, { { 0 } } },
    { "lietransformer", 1, 1e-3, .5, .9, attend, { { 0 } } },
    { "equiformer", 0, 0, .9, .999, hear,
      { { "32,16,8", 2, 2, 32, 1e-3 }, { "128,64,32", 6, 2, 128, 5e-4 } } },
    { "equiformer_v1", 0, 0, .9, .999, hear_v1,
      { { "32,16,8", 3, 2, 32, 5e-4 }, { "128,64,32", 6, 2, 128, 5e-4 } } },
    { "equiformer_v2", 0, 0, .9, .999, hear_v2,
      { { "32", 2, 2, 32, 1e-3 }, { "96", 6, 4, 128, 5e-4 } } },
    { "escn", 0, 0, .9, .999, hear_escn,
      { { "32", 3, 2, 32, 1e-3 }, { "128", 8, 6, 128, 5e-4 } } },
    { NULL, 0, 0, 0, 0, NULL, { { 0 } } }
};

/* Test errors that the papers report (Hutchinson et al., table of QM9), without and with turned
   training molecules, in bohr^3, meV, meV, meV, debye, cal/(mol K), meV, meV, bohr^2, and meV;
   LieConv with SO(3) and with no symmetry as Finzi et al. have it; the Equiformers, which need no
   turned molecules, as Liao et al. 2024 have them (table 5). 0: not reported. */
static const char *const tasks[] = { "alpha", "gap", "homo", "lumo", "mu", "Cv", "G", "H", "r2",
                                     "U", "U0", "zpve" };
static const struct reported { const char *model, *group; double error[2][12]; } papers[] = {
    { "lieconv", "T3", { { .125, 60, 36, 32, .057, .046, 35, 37, 1.54, 36, 35, 3.62 },
                         { .084, 49, 30, 25, .032, .038, 22, 24, .800, 19, 19, 2.28 } } },
    { "lieconv", "SE3", { { .097, 45, 27, 25, .039, .041, 39, 46, 2.18, 49, 48, 3.27 },
                          { .088, 45, 27, 25, .038, .043, 47, 46, 2.12, 44, 45, 3.25 } } },
    { "lieconv", "SO3", { { 0 }, { 0, 0, 65.4, 0, 0, 0, 0, 0, 0, 0, 0, 0 } } },
    { "lieconv", "Trivial3", { { 0 }, { 0, 0, 31.7, 0, 0, 0, 0, 0, 0, 0, 0, 0 } } },
    { "lietransformer", "T3", { { .179, 67, 47, 37, .063, .046, 27, 29, .717, 27, 28, 2.75 },
                                { .082, 51, 33, 27, .041, .035, 19, 17, .448, 16, 17, 2.10 } } },
    { "lietransformer", "SE3", { { .104, 52, 33, 29, .061, .041, 23, 27, 2.29, 26, 26, 3.55 },
                                 { .105, 52, 33, 29, .062, .041, 22, 25, 2.31, 24, 25, 3.67 } } },
    { "equiformer_v1", "", { { .046, 30, 15, 14, .011, .023, 7.63, 6.63, .251, 6.74, 6.59, 1.26 },
                             { 0 } } },
    { "equiformer_v2", "", { { .050, 29, 14, 13, .010, .023, 7.57, 6.22, .186, 6.49, 6.17, 1.47 },
                             { 0 } } },
};

/* Does the run's group, written in any way, begin so? */
static int is_group(const run *r, const char *begin)
{
    const char *p = r->group;
    for (; *begin && *p; p++)
        if (*p == *begin) begin++;
        else if (*p != '(' && *p != ')') return 0;
    return !*begin;
}

static double paper(const run *r)
{
    for (size_t i = 0; i < sizeof papers / sizeof papers[0]; i++)
        for (int t = 0; t < 12 && !r->s->demo; t++)
            if (!strcmp(papers[i].model, r->net->name) && is_group(r, papers[i].group) &&
                !strcmp(tasks[t], r->s->task))
                return papers[i].error[r->s->aug && r->net->grouped][t];
    return 0;
}

/* ------------------------------------------------------------------------------------------------
   Data
   ---------------------------------------------------------------------------------------------- */

static int is_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    int first = f ? fgetc(f) : EOF; /* a folder cannot be read */
    if (f) fclose(f);
    return first != EOF;
}

/* The files dsgdb9nsd_000001.xyz ... of a folder, one behind the other; NULL: there are none. */
static char *numbered_files(study *s, const char *folder, size_t *size)
{
    enum { ALL = 133885 };
    char path[1100], *text = NULL;
    size_t room = 0;
    *size = 0;
    for (int i = 1; i <= ALL; i++) {
        snprintf(path, sizeof path, "%s/dsgdb9nsd_%06d.xyz", folder, i);
        FILE *f = fopen(path, "rb");
        if (!f && i > 1000 && !text) break;
        if (!f) continue;
        for (size_t got = 1; got > 0;) {
            if (room - *size < 4096) {
                char *more = realloc(text, room = 2 * room + 65536);
                if (!more) {
                    eqnn_fail(s->c, "no memory for the molecules");
                    fclose(f);
                    return text;
                }
                text = more;
            }
            got = fread(text + *size, 1, room - *size, f);
            *size += got;
        }
        fclose(f);
    }
    return text;
}

static eqnn_molecules *molecules_in(study *s, const char *folder)
{
    static const char *const names[] = { "", "/qm9_plain.npz", "/qm9.npz", "/qm9/qm9_plain.npz",
                                         "/qm9/qm9.npz", "/dsgdb9nsd.xyz.tar", "/dsgdb9nsd.xyz" };
    char path[1024];
    size_t size;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        snprintf(path, sizeof path, "%.900s%s", folder, names[i]);
        if (is_file(path)) return eqnn_qm9_open(s->c, path);
    }
    for (int deeper = 0; deeper < 2; deeper++) {
        snprintf(path, sizeof path, "%.900s%s", folder, deeper ? "/dsgdb9nsd.xyz" : "");
        char *text = numbered_files(s, path, &size);
        eqnn_molecules *m = text && !eqnn_error(s->c) ? eqnn_qm9_parse(s->c, text, size) : NULL;
        free(text);
        if (m || eqnn_error(s->c)) return m;
    }
    eqnn_fail(s->c, "there is no QM9 in '%.200s': %s", folder, where_from);
    return NULL;
}

/* Leaves the molecules out that a list names: numbers at the beginning of its lines. */
static void drop_listed(study *s)
{
    char path[1024], line[512];
    static int number[4096];
    int n = 0;
    snprintf(path, sizeof path, "%.900s/uncharacterized.txt", s->data);
    FILE *f = fopen(path, "r");
    while (f && n < 4096 && fgets(line, sizeof line, f)) {
        char *end;
        long value = strtol(line, &end, 10);
        if (end != line && (*end == ' ' || *end == '\t') && value > 0 && value < 200000)
            number[n++] = (int)value;
    }
    if (!f) return;
    fclose(f);
    printf("%d molecules are left out, which uncharacterized.txt lists.\n",
           eqnn_molecules_drop(s->m, number, n));
}

/* A place for atom i of a molecule: 1.1 to 1.7 from one before it, and not closer to any. */
static void attach(const double *u, int i, double (*pos)[3])
{
    for (int trial = 0; trial < 100; trial++, u += 5) {
        int from = (int)(u[0] * i), free_place = 1;
        double z = 2 * u[1] - 1, angle = 6.283185307 * u[2], d = 1.1 + .6 * u[3];
        double flat = sqrt(1 - z * z), x[3] = { flat * cos(angle), flat * sin(angle), z };
        for (int a = 0; a < 3; a++) pos[i][a] = pos[from][a] + d * x[a];
        for (int j = 0; j < i; j++) {
            double square = 0;
            for (int a = 0; a < 3; a++) square += pow(pos[i][a] - pos[j][a], 2);
            free_place = free_place && square > 1.2;
        }
        if (free_place) return;
    }
}

/* Molecules grown at random, of 3 to 12 atoms; y is the energy of fixed charges of the elements,
   14.4 eV A times the sum of q_i q_j / r_ij, which is put in the place of every task. */
static void grow(study *s, int count)
{
    static const int charges[ELEMENTS] = { 1, 6, 7, 8, 9 };
    static const double q[ELEMENTS] = { .2, -.1, -.3, -.4, -.2 };
    double u[12 * 505], pos[12][3] = { { 0, 0, 0 } }, own[12];
    eqnn_molecules *m = s->m = calloc(1, sizeof *m);
    size_t n = (size_t)count;
    s->y = calloc(n + 1, sizeof *s->y);
    if (m) m->first = calloc(n + 1, sizeof(int)), m->number = calloc(n + 1, sizeof(int));
    if (m) m->charge = calloc(12 * n + 1, sizeof(int)), m->pos = calloc(36 * n + 1, sizeof(double));
    if (!m || !m->first || !m->number || !m->charge || !m->pos || !s->y) {
        eqnn_fail(s->c, "no memory for %d molecules", count);
        return;
    }
    for (int i = 0; i < count; i++) {
        eqnn_tick(s->c);
        eqnn_random(s->c, "molecule", 0, sizeof u / sizeof u[0], u);
        int atoms = 3 + (int)(u[0] * 10);
        for (int a = 0; a < atoms; a++, m->atoms++) {
            int kind = u[1 + a] < .5 ? 0 : 1 + (int)((u[1 + a] - .5) * 8);
            attach(u + 15 + 500 * a, a, pos);
            own[a] = q[kind];
            m->charge[m->atoms] = charges[kind];
            memcpy(m->pos + 3 * (size_t)m->atoms, pos[a], sizeof pos[a]);
            for (int b = 0; b < a; b++)
                s->y[i] += 14.4 * own[a] * own[b] /
                           sqrt(pow(pos[a][0] - pos[b][0], 2) + pow(pos[a][1] - pos[b][1], 2) +
                                pow(pos[a][2] - pos[b][2], 2));
        }
        m->number[i] = i + 1;
        m->first[++m->count] = m->atoms;
    }
    s->unit = "eV";
}

/* Mean and deviation of y, and centre and spread of all coordinates, in training. */
static void measure_data(study *s)
{
    const eqnn_molecules *m = s->m;
    const int *items = s->items + s->first[TRAIN];
    int n = s->count[TRAIN];
    double sum[3] = { 0, 0, 0 }, atoms = 0;
    s->mean = s->deviation = s->spread = 0;
    for (int i = 0; i < n; i++) s->mean += s->y[items[i]] / n;
    for (int i = 0; i < n; i++) s->deviation += pow(s->y[items[i]] - s->mean, 2) / n;
    for (int i = 0; i < n; i++)
        for (int a = m->first[items[i]]; a < m->first[items[i] + 1]; a++, atoms++)
            for (int k = 0; k < 3; k++) sum[k] += m->pos[3 * (size_t)a + (size_t)k];
    for (int k = 0; k < 3; k++) s->centre[k] = sum[k] / atoms;
    double middle = (sum[0] + sum[1] + sum[2]) / (3 * atoms);
    for (int i = 0; i < n; i++)
        for (int a = m->first[items[i]]; a < m->first[items[i] + 1]; a++)
            for (int k = 0; k < 3; k++)
                s->spread += pow(m->pos[3 * (size_t)a + (size_t)k] - middle, 2) / (3 * atoms);
    s->deviation = s->deviation > 0 ? sqrt(s->deviation) : 1;
    s->spread = s->spread > 0 ? sqrt(s->spread) : 1;
}

/* How many atoms of each element, and 1. */
static void composition(const study *s, int molecule, double row[ELEMENTS + 1])
{
    memset(row, 0, (ELEMENTS + 1) * sizeof *row);
    row[ELEMENTS] = 1;
    for (int a = s->m->first[molecule]; a < s->m->first[molecule + 1]; a++)
        row[s->m->charge[a] == 1 ? 0 : s->m->charge[a] - 5]++;
}

/* Solves A x = b, A symmetric and positive: elimination without pivots; x in the last column. */
static void solve(int n, double A[][ELEMENTS + 2])
{
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++) {
            double f = j == i ? 1 - 1 / A[i][i] : A[j][i] / A[i][i];
            for (int k = n; k >= i; k--) A[j][k] -= f * A[i][k];
        }
}

/* What needs no geometry: the mean, and least squares on the numbers of atoms. */
static void measure_plain(study *s)
{
    enum { N = ELEMENTS + 1 };
    double A[N][N + 1] = { { 0 } }, row[N];
    eqnn_score score[2] = { { 0 } };
    for (int i = s->first[TRAIN]; i < s->first[TRAIN + 1]; i++) {
        composition(s, s->items[i], row);
        for (int a = 0; a < N; a++) {
            for (int b = 0; b < N; b++) A[a][b] += row[a] * row[b];
            A[a][N] += row[a] * (s->y[s->items[i]] - s->mean);
        }
    }
    for (int a = 0; a < N; a++) A[a][a] += 1e-6; /* an element may be missing */
    solve(N, A);
    for (int i = s->first[TEST]; i < s->first[TEST + 1]; i++) {
        double fit = s->mean;
        composition(s, s->items[i], row);
        for (int a = 0; a < N; a++) fit += A[a][N] * row[a];
        eqnn_score_add(&score[0], 1, &s->y[s->items[i]], &s->mean);
        eqnn_score_add(&score[1], 1, &s->y[s->items[i]], &fit);
    }
    for (int k = 0; k < 2; k++) s->plain[k] = eqnn_score_mae(&score[k]) * s->shown;
}

static int prepare(study *s)
{
    int sum = s->count[TEST] + s->count[VALID] + s->count[TRAIN];
    if (s->demo) {
        grow(s, sum);
    } else if (!*s->data) {
        eqnn_fail(s->c, "no --data: %s", where_from);
    } else if ((s->m = molecules_in(s, s->data)) != NULL) {
        drop_listed(s);
        s->y = malloc(((size_t)s->m->count + 1) * sizeof *s->y);
        if (s->y) eqnn_qm9_target(s->c, s->m, s->task, s->y, &s->unit);
        if (s->count[TRAIN] == 0) s->count[TRAIN] = sum = s->m->count - sum;
    }
    if (eqnn_error(s->c)) return 0;
    sum = s->count[TEST] + s->count[VALID] + s->count[TRAIN];
    s->shown = !strcmp(s->unit, "eV") ? 1000 : 1;
    if (s->shown > 1) s->unit = "meV";
    s->items = malloc(((size_t)(sum > 0 ? sum : 0) + 1) * sizeof *s->items);
    s->features = malloc(((size_t)s->m->atoms + 1) * FEATURES * sizeof *s->features);
    if (!s->y || !s->items || !s->features) return eqnn_fail(s->c, "no memory for the data"), 0;
    if (sum > s->m->count || s->count[TRAIN] < 1) {
        int least = s->count[TRAIN] > 1 ? s->count[TRAIN] : 1;
        eqnn_fail(s->c, "%d molecules are too few: --n-test, --n-valid and --n-train ask for %d, "
                  "%d and %d", s->m->count, s->count[TEST], s->count[VALID], least);
        return 0;
    }
    eqnn_charge_features(s->c, s->m->atoms, s->m->charge, s->features);
    eqnn_split_counts(s->c, s->data_seed, s->m->count, s->count, SETS, s->items, s->first);
    if (eqnn_error(s->c)) return 0;
    measure_data(s);
    measure_plain(s);
    return 1;
}

/* The molecules of a part as tensors, (x - centre) / spread and turned if it is asked for. A turn
   and then a shift by N(0, .25) are, as a pair, as likely as the paper's shift and then a turn. */
static void gather(const run *r, eqnn_ctx *c, part *p, const int *items, int n)
{
    const study *s = r->s;
    batch *b = &p->b;
    b->c = c, b->molecules = n, b->atoms = 0;
    for (int i = 0; i < n; i++) {
        int first = s->m->first[items[i]], own = s->m->first[items[i] + 1] - first;
        double *x = p->pos + 3 * (size_t)b->atoms;
        for (int k = 0; k < 3 * own; k++) {
            x[k] = s->m->pos[3 * (size_t)first + (size_t)k];
            if (r->recenter) x[k] = (x[k] - s->centre[k % 3]) / s->spread;
        }
        if (r->turned) eqnn_augment(c, r->seed, (uint64_t)items[i], 1, .5, own, 3, x);
        memcpy(p->features + (size_t)b->atoms * FEATURES, s->features + (size_t)first * FEATURES,
               (size_t)own * FEATURES * sizeof *p->features);
        memcpy(b->charge + b->atoms, s->m->charge + first, (size_t)own * sizeof(int));
        for (int k = 0; k < own; k++) b->example[b->atoms++] = i;
        p->y[i] = (s->y[items[i]] - s->mean) / s->deviation;
    }
    b->pos = eqnn_from_double(b->c, b->atoms, 3, p->pos);
    b->features = eqnn_from_double(b->c, b->atoms, FEATURES, p->features);
}

/* ------------------------------------------------------------------------------------------------
   Training
   ---------------------------------------------------------------------------------------------- */

/* A worker's part of a batch, with gradients where it is for training. */
static void work(eqnn_ctx *c, int number, int parts, void *user)
{
    run *r = user;
    const study *s = r->s;
    part *p = &r->part[number];
    int first = r->n * number / parts, n = r->n * (number + 1) / parts - first;
    int learning = eqnn_recording(c, 0);
    eqnn_recording(c, learning);
    p->loss = 0;
    if (n == 0) return;
    gather(r, c, p, r->items + first, n);
    eqnn_tensor *y = r->net->predict(r, &p->b);
    for (int i = 0; y && r->out && i < n; i++)
        r->out[first + i] = s->mean + s->deviation * eqnn_at(y, i, 0);
    if (learning) {
        eqnn_tensor *loss = eqnn_mae(y, eqnn_from_double(c, n, 1, p->y));
        loss = eqnn_scale(loss, (double)n / r->n);
        p->loss = eqnn_value(loss);
        eqnn_backward(loss);
    }
    eqnn_memory m = eqnn_memory_use(c);
    p->memory = m.step_peak + m.lasting;
}

/* Turned or not, the same turns for the same seed; out [n] or NULL gets the predictions. The mean
   absolute error, in deviations. */
static double run_parts(run *r, const int *items, int n, int turned, uint64_t seed, double *out)
{
    double loss = 0;
    r->items = items, r->n = n, r->turned = turned, r->seed = seed, r->out = out;
    eqnn_parts_run(r->workers, work, r);
    for (int k = 0; k < r->s->parts; k++) loss += r->part[k].loss;
    return loss;
}

/* The mean absolute error of a set of molecules; out (or NULL) gets the predictions. */
static double evaluate(run *r, int set, int turned, double *out)
{
    const study *s = r->s;
    const int *items = s->items + s->first[set];
    int n = s->count[set], most = r->batch;
    double *y = malloc((size_t)most * sizeof *y);
    eqnn_score score = { 0 };
    eqnn_training(r->c, 0);
    eqnn_recording(r->c, 0);
    for (int i = 0; y && i < n && !eqnn_error(r->c) && !eqnn_interrupted(); i += most) {
        int count = n - i < most ? n - i : most;
        run_parts(r, items + i, count, turned, 0, y);
        eqnn_reset(r->c);
        for (int k = 0; k < count; k++) eqnn_score_add(&score, 1, &s->y[items[i + k]], &y[k]);
        if (out) memcpy(out + i, y, (size_t)count * sizeof *y);
    }
    eqnn_training(r->c, 1);
    eqnn_recording(r->c, 1);
    free(y);
    return eqnn_score_mae(&score) * s->shown;
}

static void step(run *r, eqnn_adam *adam, const int *items, int n)
{
    const study *s = r->s;
    eqnn_adam_rate(adam, r->rate * eqnn_run_rate(r->run, &s->schedule));
    uint64_t seed = eqnn_seed(r->c) + 1 + (uint64_t)r->run->epoch;
    double loss = run_parts(r, items, n, s->aug, seed, NULL);
    eqnn_adam_step(adam);
    eqnn_reset(r->c);
    eqnn_run_step(r->run, loss * s->deviation * s->shown, n);
    eqnn_run_show(r->run, "train %.4g, best valid %.4g %s", eqnn_average_value(&r->run->loss),
                  r->run->best, s->unit);
}

/* Looks at the validation molecules; weights that were never better are kept. */
static void look(run *r, eqnn_csv *log)
{
    if (!eqnn_run_look(r->run, evaluate(r, VALID, 0, NULL))) return;
    const double row[] = { eqnn_run_epochs(r->run), r->run->seconds / 60,
                           eqnn_average_value(&r->run->loss), r->run->value };
    eqnn_csv_row(log, r->name, 4, row);
}

static void train(run *r, eqnn_csv *log)
{
    const study *s = r->s;
    const int *items;
    eqnn_run_opts o = s->run;
    o.items = s->items + s->first[TRAIN], o.batch = r->batch;
    o.path = eqnn_path_in(s->c, s->save ? s->out : "", "%s.safetensors", r->name);
    r->run = eqnn_run_make(r->c, r->name, s->count[TRAIN], &o);
    eqnn_adam *adam = eqnn_adam_make(r->c, &(eqnn_adam_opts){ .rate = r->rate,
        .beta1 = r->net->beta1, .beta2 = r->net->beta2, .clip = s->clip });
    for (int n; (n = eqnn_run_next(r->run, &items)) >= 0;) {
        if (n > 0) step(r, adam, items, n);
        else look(r, log);
    }
    eqnn_run_best(r->run);
}

/* ------------------------------------------------------------------------------------------------
   A row of the table: one model with one group
   ---------------------------------------------------------------------------------------------- */

/* What the group suggests where nothing is asked for: the published settings. */
static void settle(run *r, const network *net, const char *group, int length)
{
    const study *s = r->s;
    r->net = net;
    r->test = r->test_turned = NAN;
    snprintf(r->group, sizeof r->group, "%.*s", length, group);
    snprintf(r->name, sizeof r->name, "%s%s%s", net->name, length ? "-" : "", r->group);
    const sizes *size = &net->size[s->published];
    int turns = is_group(r, "SE3") || is_group(r, "SO3");
    r->samples = s->samples > 0 ? s->samples : turns ? 4 : 1;
    r->nbhd = s->nbhd >= 0 ? s->nbhd : turns ? 25 : 0;
    r->fill = s->fill > 0 ? s->fill : turns ? .5 : 1;
    r->batch = s->batch > 0 ? s->batch : !net->grouped ? size->batch : turns ? 75 : 100;
    r->layers = s->layers > 0 ? s->layers : !net->grouped ? size->layers : 6;
    r->lmax = s->lmax >= 0 ? s->lmax : size->lmax;
    r->widths = *s->widths ? s->widths : size->widths;
    r->recenter = s->recenter >= 0 ? s->recenter : turns;
    r->rate = s->rate > 0 ? s->rate : net->grouped ? net->rate : size->rate;
}

static int make_part(const run *r, part *p)
{
    const study *s = r->s;
    int most = 0, own;
    for (int i = 0; i < s->m->count; i++)
        if ((own = s->m->first[i + 1] - s->m->first[i]) > most) most = own;
    size_t n = (size_t)r->batch + 1, atoms = n * (size_t)most + 1;
    p->pos = malloc(3 * atoms * sizeof *p->pos);
    p->features = malloc(FEATURES * atoms * sizeof *p->features);
    p->y = malloc(n * sizeof *p->y);
    p->b.charge = malloc(atoms * sizeof(int));
    p->b.example = malloc(atoms * sizeof(int));
    return p->pos && p->features && p->y && p->b.charge && p->b.example;
}

/* Workers, and weights by a first look at one molecule, which leaves nothing else behind. */
static int start(run *r)
{
    const study *s = r->s;
    r->c = eqnn_make(&s->context);
    r->predicted = malloc(((size_t)s->count[TEST] + 1) * sizeof *r->predicted);
    if (!r->c || !r->predicted) return eqnn_fail(s->c, "no memory for %s", r->name), 0;
    for (int k = 0; k < s->parts; k++)
        if (!make_part(r, &r->part[k])) return eqnn_fail(r->c, "no memory"), 0;
    eqnn_training(r->c, 0);
    eqnn_mark mark = eqnn_mark_make(r->c);
    gather(r, r->c, &r->part[0], s->items + s->first[TRAIN], 1);
    eqnn_rewind(mark, r->net->predict(r, &r->part[0].b));
    eqnn_training(r->c, 1);
    r->workers = eqnn_parts_make(r->c, s->parts, s->context.threads);
    return !eqnn_error(r->c);
}

static void finish(run *r)
{
    eqnn_run_free(r->run);
    eqnn_parts_free(r->workers);
    for (int k = 0; k < r->s->parts; k++) {
        part *p = &r->part[k];
        free(p->pos);
        free(p->features);
        free(p->y);
        free(p->b.charge);
        free(p->b.example);
    }
    eqnn_free(r->c);
    free(r->predicted);
}

/* Trains, and tests the best weights. 0 on an error, or when Ctrl-C came. */
static int study_one(run *r, eqnn_csv *log)
{
    const study *s = r->s;
    if (start(r)) train(r, log);
    if (!eqnn_error(r->c) && !eqnn_interrupted()) r->test = evaluate(r, TEST, 0, r->predicted);
    if (!eqnn_error(r->c) && !eqnn_interrupted()) r->test_turned = evaluate(r, TEST, 1, NULL);
    if (r->c && eqnn_error(r->c)) eqnn_fail(s->c, "%s: %s", r->name, eqnn_error(r->c));
    return !eqnn_error(s->c) && !eqnn_interrupted();
}

static double megabytes(const run *r)
{
    eqnn_memory m = eqnn_memory_use(r->c);
    size_t sum = m.step_peak + m.lasting;
    for (int k = 0; k < r->s->parts; k++) sum += r->part[k].memory;
    return (double)sum / 1e6;
}

/* ------------------------------------------------------------------------------------------------
   Reports
   ---------------------------------------------------------------------------------------------- */

static void print_summary(const study *s, const run *r, int n)
{
    static const char *const plain[2] = { "mean", "composition only" };
    eqnn_table *t = eqnn_table_make(s->c, "model|weights|epochs|minutes|ms/step|molecules/s|MB|"
                                          "train|best valid|test|test, turned|paper");
    printf("\nMean absolute error of %s in %s; %d molecules to train on, %d to test:\n\n",
           s->demo ? "the energy of charges" : s->task, s->unit, s->count[TRAIN], s->count[TEST]);
    for (int i = 0; i < 2; i++) {
        eqnn_table_cell(t, "%s", plain[i]);
        for (int k = 0; k < 8; k++) eqnn_table_cell(t, "-");
        for (int k = 0; k < 2; k++) eqnn_table_cell(t, "%.4g", s->plain[i]);
        eqnn_table_cell(t, "-");
    }
    for (int i = 0; i < n; i++) {
        eqnn_table_cell(t, "%s", r[i].name);
        eqnn_table_cell(t, "%.0f", (double)eqnn_parameter_size(r[i].c));
        eqnn_table_number(t, "%.1f", eqnn_run_epochs(r[i].run));
        eqnn_table_number(t, "%.1f", r[i].run->seconds / 60);
        eqnn_table_number(t, "%.0f", 1e3 * eqnn_run_pace(r[i].run));
        eqnn_table_number(t, "%.0f", s->count[TRAIN] * eqnn_run_epochs(r[i].run)
                                                      / r[i].run->step_seconds);
        eqnn_table_number(t, "%.0f", megabytes(&r[i]));
        eqnn_table_number(t, "%.4g", eqnn_average_value(&r[i].run->loss));
        eqnn_table_number(t, "%.4g", r[i].run->best);
        eqnn_table_number(t, "%.4g", r[i].test);
        eqnn_table_number(t, "%.4g", r[i].test_turned);
        eqnn_table_number(t, "%.3g", paper(&r[i]) > 0 ? paper(&r[i]) : NAN);
    }
    eqnn_table_print(t, stdout);
    eqnn_table_free(t);
}

static void write_summary(const study *s, const run *r, int n)
{
    eqnn_csv *f = eqnn_csv_open(s->c, eqnn_path_in(s->c, s->out, "summary.csv"),
                                "model,weights,epochs,minutes,ms_per_step,valid,test,turned,paper",
                                0);
    for (int i = -2; i < n; i++) {
        const run *q = i < 0 ? NULL : &r[i];
        const double row[] = { q ? (double)eqnn_parameter_size(q->c) : 0,
                               q ? eqnn_run_epochs(q->run) : NAN, q ? q->run->seconds / 60 : NAN,
                               q ? 1e3 * eqnn_run_pace(q->run) : NAN, q ? q->run->best : NAN,
                               q ? q->test : s->plain[i + 2], q ? q->test_turned : s->plain[i + 2],
                               q && paper(q) > 0 ? paper(q) : NAN };
        eqnn_csv_row(f, q ? q->name : i == -2 ? "mean" : "composition only", 8, row);
    }
    eqnn_csv_close(f);
}

/* Predicted against true values of the test molecules, in the units that are learned in. */
static void draw_predictions(const study *s, const run *r, int n)
{
    eqnn_plot *panel[MOST_RUNS] = { NULL };
    int count = s->count[TEST];
    double *truth = malloc(((size_t)count + 1) * sizeof *truth), ends[2] = { INFINITY, -INFINITY };
    for (int i = 0; truth && i < count; i++) {
        truth[i] = s->y[s->items[s->first[TEST] + i]];
        ends[0] = fmin(ends[0], truth[i]), ends[1] = fmax(ends[1], truth[i]);
    }
    for (int i = 0; i < n; i++) {
        panel[i] = eqnn_plot_make(s->c, &(eqnn_plot_opts){ .title = r[i].name, .x_label = "true",
            .y_label = "predicted", .width = 420, .height = 420 });
        eqnn_plot_add(panel[i], NULL, 2, ends, ends, &(eqnn_series_opts){ .colour = "#999999" });
        eqnn_plot_add(panel[i], NULL, truth ? count : 0, truth, r[i].predicted,
                      &(eqnn_series_opts){ .points = 1, .size = 1.3, .opacity = .4 });
    }
    eqnn_plots_save(s->c, eqnn_path_in(s->c, s->out, "predictions.svg"), panel, n,
                    n < 4 ? n : (n + 1) / 2);
    for (int i = 0; i < n; i++) eqnn_plot_free(panel[i]);
    free(truth);
}

static void draw_errors(const study *s, const run *r, int n)
{
    char unit[64];
    eqnn_plot *panel[2];
    snprintf(unit, sizeof unit, "mean absolute error in %s", s->unit);
    for (int j = 0; j < 2; j++) {
        panel[j] = eqnn_plot_make(s->c, &(eqnn_plot_opts){ .title = j ? "By time" : "By epochs",
            .x_label = j ? "minutes" : "epochs", .y_label = unit });
        for (int i = 0; i < n; i++)
            eqnn_plot_csv(panel[j], eqnn_path_in(s->c, s->out, "log.csv"), r[i].name, 1 + j, 4,
                          NULL);
    }
    eqnn_plots_save(s->c, eqnn_path_in(s->c, s->out, "errors.svg"), panel, 2, 2);
    for (int j = 0; j < 2; j++) eqnn_plot_free(panel[j]);
}

static void print_verdict(const study *s, const run *r, int n)
{
    const run *best = n > 0 ? r : NULL;
    for (int i = 1; i < n; i++)
        if (r[i].test < best->test) best = &r[i];
    if (best)
        printf("\n%s has the smallest error, %.4g %s: %.2f of what the numbers of atoms alone "
               "tell.\n", best->name, best->test, s->unit, best->test / s->plain[1]);
}

/* ------------------------------------------------------------------------------------------------
   The program
   ---------------------------------------------------------------------------------------------- */

static void add_run(study *s, run *r, int *n, const network *net, const char *group, int length)
{
    if (*n == MOST_RUNS || length >= (int)sizeof r->group) {
        eqnn_fail(s->c, "--group '%.*s': too many models, or too long a name", length, group);
        return;
    }
    r[*n].s = s;
    settle(&r[*n], net, group, length);
    double alpha;
    const eqnn_lie *g = length ? eqnn_lie_weighed(s->c, r[*n].group, &alpha) : NULL;
    if (g && eqnn_lie_point_dim(g) != 3)
        eqnn_fail(s->c, "--group %s acts on %d axes; atoms have 3", r[*n].group,
                  eqnn_lie_point_dim(g));
    ++*n;
}

static int list_runs(study *s, run *r)
{
    const char *word, *list = s->models, *group;
    int n = 0;
    for (int length; (length = eqnn_next_word(&list, &word)) > 0 && !eqnn_error(s->c);) {
        const network *net = networks;
        const char *groups = s->groups;
        if (length == 14 && !strncmp(word, "MolecLieResNet", 14)) word = "lieconv", length = 7;
        while (net->name && (strncmp(word, net->name, (size_t)length) || net->name[length])) net++;
        if (!net->name)
            eqnn_fail(s->c, "--model: there is no '%.*s'; there are lieconv, lietransformer, "
                            "equiformer, equiformer_v1, equiformer_v2 and escn", length, word);
        else if (!net->grouped) add_run(s, r, &n, net, "", 0);
        else
            for (int k; (k = eqnn_next_word(&groups, &group)) > 0 && !eqnn_error(s->c);)
                add_run(s, r, &n, net, group, k);
    }
    return n;
}

static void report(const study *s, const run *r, int n)
{
    print_summary(s, r, n);
    print_verdict(s, r, n);
    if (!*s->out) return;
    write_summary(s, r, n);
    draw_predictions(s, r, n);
    draw_errors(s, r, n);
    if (!eqnn_error(s->c)) printf("Tables, pictures and models are in %s.\n", s->out);
}

static void run_all(study *s)
{
    static run r[MOST_RUNS];
    eqnn_csv *log = NULL;
    int finished = 0, n = list_runs(s, r);
    if (!eqnn_error(s->c) && prepare(s) && *s->out && eqnn_make_folder(s->c, s->out))
        log = eqnn_csv_open(s->c, eqnn_path_in(s->c, s->out, "log.csv"),
                            "model,epoch,minutes,train,valid", s->run.resume);
    for (int i = 0; i < n && *s->out && s->save && !s->run.resume && !eqnn_error(s->c); i++)
        eqnn_run_forget(eqnn_path_in(s->c, s->out, "%s.safetensors", r[i].name));
    while (finished < n && !eqnn_error(s->c) && study_one(&r[finished], log)) finished++;
    eqnn_csv_close(log);
    if (finished == n && n > 0) report(s, r, n);
    else if (eqnn_interrupted() && !eqnn_error(s->c))
        printf("Interrupted%s.\n", *s->out ? "; the same command with --resume continues" : "");
    for (int i = 0; i < n; i++) finish(&r[i]);
}

static const eqnn_option options[] = {
    { "model", "lieconv", "lieconv, lietransformer, equiformer, equiformer_v1, equiformer_v2, "
                          "escn" },
    { "group", "T(3)", "T(3), SE3(.2), SO3(.2), Trivial(3), or a list" },
    { "study", "off", "all models, those that have a group with T(3) and SE3(.2)" },
    { "task", "homo", "alpha gap homo lumo mu Cv G H r2 U U0 zpve" },
    { "aug", "on", "training molecules are turned and moved" },
    { "demo", "off", "generated molecules in the place of QM9" },
    { "n-train", "10000", "molecules to train on; 0: all that are left" },
    { "n-valid", "1000", "molecules that choose the weights" },
    { "n-test", "5000", "molecules to test" },
    { "minutes", "60", "of training each model; with --epochs: no limit" },
    { "lr", "", "rate of Adam [lieconv 3e-3, equiformer_v1 5e-4, others 1e-3]" },
    { "bs", "", "molecules in a batch [100, SE3 and SO3 75, Equiformers 32]" },
    { "num-layers", "", "blocks [6; equiformer, equiformer_v2 2, equiformer_v1, escn 3]" },
    { "widths", "", "channels of an Equiformer's degrees [32,16,8; equiformer_v2, escn 32]" },
    { "lmax", "", "largest degree of equiformer_v2 and escn [2]" },
    { "published", "off", "Equiformers as large as the papers have them" },
    { "fill", "", "share of a molecule that is near [1, SE3 and SO3 1/2]" },
    { "nbhd", "", "most neighbours; 0: all [0, SE3 and SO3 25]" },
    { "liftsamples", "", "elements of an atom [1, SE3 and SO3 4]" },
    { "recenter", "", "positions in units of their spread: True or False [SE3 and SO3 True]" },
    { "k", "1536", "channels of lieconv" },
    { "dim-hidden", "512", "channels of lietransformer, and its other settings:" },
    { "num-heads", "8", "its heads" },
    { "kernel-type", "mlp", "see eqnn_lie_attention" },
    { "kernel-dim", "16", "hidden numbers of the network of positions" },
    { "feature-embed-dim", "0", "of F in eqnn_lie_attention; 0: dim-hidden / (4 num-heads)" },
    { "attention-fn", "softmax", "or dot_product, norm_exp; kernels 2232, ...: as they say" },
    { "architecture", "model_1", "model_1, lieconv" },
    { "block-norm", "layer_pre", "or none, layer_post, batch_pre, batch_post" },
    { "lie-algebra-nonlinearity", "none", "tanh limits pairs" },
    { "use-pseudo-lift", "off", "pairs are elements (quaternions), not their logarithms" },
    { "dual-quaternions", "on", "those of SE3 as 8 numbers; off: quaternion and shift, 7" },
    { "positive-quaternions", "off", "of q and -q the one with w >= 0" },
    { "max-sample-norm", "0", "atoms are lifted anew while a pair is longer; 0: never" },
    { "lr-schedule", "cosine_warmup", "or none, cosine, quadratic_warmup" },
    { "lr-floor", "1e-3", "least of that, as a share of --lr" },
    { "warmup-length", ".01", "share of the run in which the rate grows from nothing" },
    { "clip", "0", "largest norm of the gradient; 0: any" },
    { "parts", "2", "a batch is cut into, each for a thread" },
    { "evals", "20", "how often to look at the validation molecules" },
    { "epochs", "500", "passes over the training molecules, in the place of --minutes" },
    { "data-seed", "0", "of the split; --seed is that of the weights" },
    { "norm-floor", "", "of Equiformers: see the head of the program [0]" },
    { "save", "on", "checkpoints and models in --out" },
    { "out", "build/qm9", "folder for tables, pictures and models; empty: none" },
    { "net-config", "{}", "more options, as {'group': SE3(.2), 'fill': 1/2}" },
    /* other names of the same */
    { "network", "--model", NULL },
    { "num-epochs", "--epochs", NULL },
    { "train-epochs", "--epochs", NULL },
    { "learning-rate", "--lr", NULL },
    { "batch-size", "--bs", NULL },
    { "lift-samples", "--liftsamples", NULL },
    { "mc-samples", "--nbhd", NULL },
    { "model-seed", "--seed", NULL },
    { "run-name", "--out", NULL },
    { "log-suffix", "--out", NULL },
    { NULL, NULL, NULL }
};

/* What --resume needs to be told as before. */
static const char repeated[] =
    "task,aug,demo,n-train,n-valid,lr,bs,fill,nbhd,recenter,kernel-type,"
    "attention-fn,block-norm,lie-algebra-nonlinearity,use-pseudo-lift,dual-quaternions,"
    "positive-quaternions,max-sample-norm,lr-schedule,lr-floor,warmup-length,clip,data-seed,seed,"
    "norm-floor";

/* A number that may be left open: -1 then. */
static double maybe(eqnn_args *a, const char *name, double low, double high)
{
    const char *text = eqnn_args_text(a, name);
    if (!*text) return -1;
    double v = !strcmp(text, "True") ? 1 : !strcmp(text, "False") ? 0 : eqnn_args_number(a, name);
    if (v < low || v > high)
        eqnn_args_fail(a, "option --%s is from %g to %g, not %g", name, low, high, v);
    return v;
}

static void understand_model(study *s, eqnn_args *a)
{
    s->samples = (int)maybe(a, "liftsamples", 1, 1000);
    s->nbhd = (int)maybe(a, "nbhd", 0, 1e6);
    s->batch = (int)maybe(a, "bs", 1, 1e6);
    s->recenter = (int)maybe(a, "recenter", 0, 1);
    s->fill = maybe(a, "fill", 1e-3, 1);
    s->rate = maybe(a, "lr", 1e-12, 1e3);
    s->k = eqnn_args_int(a, "k", 4, 100000);
    s->layers = (int)maybe(a, "num-layers", 1, 1000);
    s->lmax = (int)maybe(a, "lmax", 1, 11);
    s->widths = eqnn_args_text(a, "widths");
    for (const char *list = s->widths, *word; eqnn_next_word(&list, &word) > 0 && !a->error[0];) {
        long n = strtol(word, NULL, 10);
        if (n < 1 || n > 10000)
            eqnn_args_fail(a, "option --widths: '%.80s' is no list of numbers like 32,16,8",
                           s->widths);
    }
    s->published = eqnn_args_on(a, "published");
    s->dim = eqnn_args_int(a, "dim-hidden", 1, 100000);
    s->heads = eqnn_args_int(a, "num-heads", 1, 1000);
    s->kernel = eqnn_args_text(a, "kernel-type");
    int kernel_dim = eqnn_args_int(a, "kernel-dim", 1, 10000);
    if (eqnn_args_given(a, "kernel-dim")) s->kernel_dim = kernel_dim; /* not all kernels have M */
    s->feature_dim = eqnn_args_int(a, "feature-embed-dim", 0, 10000);
    if (eqnn_args_given(a, "attention-fn")) /* a kernel of digits has its own */
        s->attention = eqnn_args_text(a, "attention-fn");
    s->head = eqnn_args_text(a, "architecture");
    s->norm = eqnn_args_text(a, "block-norm");
    s->squash = eqnn_args_choice(a, "lie-algebra-nonlinearity", "none,tanh,None") == 1;
    s->elements = eqnn_args_on(a, "use-pseudo-lift");
    s->dual = eqnn_args_on(a, "dual-quaternions");
    s->positive = eqnn_args_on(a, "positive-quaternions");
    s->max_norm = fmax(maybe(a, "max-sample-norm", 0, 1e300), 0);
    s->norm_floor = fmax(maybe(a, "norm-floor", 0, 1e6), 0);
    s->save = eqnn_args_on(a, "save");
}

/* Of a run of a million steps, as eqnn_run_rate counts. */
static void understand_schedule(study *s, eqnn_args *a)
{
    enum { NONE, COSINE, COSINE_WARMUP, QUADRATIC_WARMUP, NONE_TOO };
    int kind = eqnn_args_choice(a, "lr-schedule",
                                "none,cosine,cosine_warmup,quadratic_warmup,None");
    s->schedule = (eqnn_schedule){ .rate = 1, .overlap = 1, .every = 100,
                                   .least = fmax(maybe(a, "lr-floor", 0, 1), 0) };
    s->schedule.kind = kind == QUADRATIC_WARMUP ? EQNN_INVERSE_ROOT
                       : kind == NONE || kind == NONE_TOO ? EQNN_CONSTANT : EQNN_COSINE;
    int warm = kind == COSINE_WARMUP || kind == QUADRATIC_WARMUP;
    eqnn_args_only(a, warm, "warmup-length", "cosine_warmup and quadratic_warmup");
    if (warm) s->schedule.warmup = (int64_t)(1e6 * fmax(maybe(a, "warmup-length", 0, 1), 0));
}

/* Which options are of no use to the models that are asked for? */
static void check_options(const study *s, eqnn_args *a)
{
    const char *m = s->models, *g = s->groups;
    int convolves = strstr(m, "lieconv") || strstr(m, "MolecLieResNet");
    int attends = strstr(m, "lietransformer") != NULL, hears = strstr(m, "equiformer") != NULL;
    int escn = strstr(m, "escn") != NULL, v2 = strstr(m, "equiformer_v2") != NULL;
    int few = s->nbhd > 0 || (s->nbhd < 0 && (strstr(g, "SE") || strstr(g, "SO")));
    eqnn_args_only(a, convolves || attends, "group,nbhd,liftsamples", "lieconv and lietransformer");
    eqnn_args_only(a, convolves, "k", "lieconv");
    eqnn_args_only(a, attends, "dim-hidden,num-heads,kernel-type,kernel-dim,feature-embed-dim,"
                   "attention-fn,architecture,block-norm,lie-algebra-nonlinearity,use-pseudo-lift,"
                   "max-sample-norm", "lietransformer");
    eqnn_args_only(a, attends && s->elements, "dual-quaternions,positive-quaternions",
                   "lietransformer with --use-pseudo-lift");
    eqnn_args_only(a, convolves || (attends && (few || s->fill >= 1)), "fill",
                   "lieconv, and lietransformer with --nbhd");
    eqnn_args_only(a, hears || escn, "widths,published", "Equiformers");
    eqnn_args_only(a, v2 || escn, "lmax", "equiformer_v2 and escn");
    eqnn_args_only(a, hears, "norm-floor", "Equiformers but escn");
    eqnn_args_only(a, !s->demo, "task,data", "runs without --demo");
}

static void understand(study *s, eqnn_args *a)
{
    int all = eqnn_args_on(a, "study");
    understand_model(s, a);
    understand_schedule(s, a);
    s->models = eqnn_args_text(a, "model");
    if (all && !eqnn_args_given(a, "model"))
        s->models = "lieconv,lietransformer,equiformer,equiformer_v1,equiformer_v2,escn";
    s->groups = all && !eqnn_args_given(a, "group") ? "T(3),SE3(.2)" : eqnn_args_text(a, "group");
    s->task = eqnn_args_text(a, "task");
    eqnn_args_choice(a, "task", "alpha,gap,homo,lumo,mu,Cv,G,H,r2,U,U0,zpve");
    s->data = eqnn_args_text(a, "data");
    s->out = eqnn_args_text(a, "out");
    s->demo = eqnn_args_on(a, "demo");
    s->aug = eqnn_args_on(a, "aug");
    s->run = eqnn_args_run(a, repeated);
    if (s->run.resume && !s->save) eqnn_args_fail(a, "option --resume needs --save");
    s->count[TRAIN] = eqnn_args_int(a, "n-train", s->demo, 1000000);
    s->count[VALID] = eqnn_args_int(a, "n-valid", 0, 1000000);
    s->count[TEST] = eqnn_args_int(a, "n-test", 1, 1000000);
    s->parts = eqnn_args_int(a, "parts", 1, MOST_PARTS);
    s->clip = eqnn_args_number(a, "clip");
    s->data_seed = (uint64_t)eqnn_args_int(a, "data-seed", 0, 2147483647);
    s->context = eqnn_args_context(a);
    check_options(s, a);
}

static void release(study *s)
{
    eqnn_molecules_free(s->m);
    free(s->y);
    free(s->items);
    free(s->features);
}

int main(int argc, char **argv)
{
    study s = { 0 };
    eqnn_args a;
    int go = eqnn_args_read(&a, argc, argv, "Learns properties of molecules.", options);
    if (go > 0) understand(&s, &a);
    if ((s.c = eqnn_program_start(&a, &s.context)) != NULL) run_all(&s);
    release(&s);
    return eqnn_program_end(&a, s.c);
}
