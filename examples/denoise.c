/* denoise.c - taking the noise away from protein backbones

   cc -O2 -fopenmp -I. examples/denoise.c -lm -o denoise && ./denoise --minutes 10
   (--help lists the options)

   The atoms N, CA and C of a chain are moved by random numbers, N(0, 1) angstrom along each axis,
   and a network is asked where they were. It sees the moved atoms, which kind of residue each
   belongs to, and who is near. What it gives turns with the chain: a vector for each atom, which is
   added to its place. It is the experiment of equiformer-pytorch (its denoise.py), which published
   no numbers.

      --model equiformer        as there: degrees 0 to 3, ten blocks, and an atom sees no more than
                                the residues' kinds and its six nearest neighbours in space
      --model equiformer-chain  told more: which atom of a residue each is, the atoms before and
                                after it in the chain, and how many steps away they are
      --model gated             told the same; blocks of gated convolutions and maps, in this file
      --reversible on           blocks in two streams: memory does not depend on --depth

   You will see the distance from the truth (RMSD, angstrom) of held-out chains before and after, as
   they stand and after the best superposition, beside two baselines: nothing is taken away, and
   the best linear filter along the chain, as which models that are told more begin. chain.svg draws
   one chain: moved, filtered, denoised.

   It teaches: features of several degrees let a network answer with vectors, which turn with the
   chain though no turned one was ever shown; and a baseline that a model can begin from, and is
   measured against, says what its depth is worth.

   Without --data the chains are generated: helices and strands of ideal geometry with loops between
   (eqnn_backbones in eqnn_data.h). --data takes PDB files, folders of them and npz files
   (eqnn_protein_open), several with commas between; what was left out of them is counted.

   Training runs for --minutes, or --epochs if those are given; 16 chains make an optimizer step,
   one after the other in each of --parts threads, and each time with other noise.

   "make test" runs it with
      --model gated,equiformer --n-train 4 --n-test 2 --length 6,8 --epochs 1 --dim 4 --depth 2 */

#define EQNN_IMPLEMENTATION
#include "eqnn_data.h"
#ifndef _WIN32
#include <dirent.h>
#endif

/* ------------------------------------------------------------------------------------------------
   What is studied
   ---------------------------------------------------------------------------------------------- */

enum { TEST, TRAIN, SETS };
enum { SIDE = 9, TAPS = 2 * SIDE };          /* of the linear filter                              */
enum { ATOMS = 3, ROW = 3 * ATOMS, KINDS = 21, MOST_RUNS = 8, MOST_BATCH = 256, MOST_REACH = 32,
       MOST_PARTS = 64, TOKENS = 24 }; /* tokens of the original, which uses 21 of them */

typedef struct study {
    /* asked for */
    const char *models, *data, *out, *dim, *heads, *reversible;
    eqnn_run_opts run;                       /* epochs, minutes, looks, resume                   */
    int parts, batch, depth, lmax, neighbours, reach;
    int least, most, longest, count[SETS];
    double noise, rate, clip, radius;
    uint64_t data_seed;
    eqnn_opts context;
    /* the data */
    eqnn_ctx *c;
    eqnn_proteins *m;
    double *truth, *moved;   /* [residues][ROW]: N CA C; test chains with their noise             */
    double *filtered;        /* [residues][ROW]: what the linear filter makes of these            */
    int *items, first[SETS + 1];
    double filter[ATOMS][TAPS][TAPS + 1]; /* its weights in the last column                       */
} study;

/* A chain as a network gets it. */
typedef struct chain {
    eqnn_ctx *c;
    int atoms;
    eqnn_tensor *pos;        /* [atoms,3]                                                         */
    eqnn_ints *token;        /* [atoms]: kind of the residue; told: 3 kind + atom                 */
    eqnn_ints *offset;       /* [edges]: steps along the chain from target to source, see look()  */
    eqnn_ints *tap;          /* [edges]: the same for each of the three atoms                     */
    const eqnn_graph *g;
} chain;

/* Errors of a set of chains, averaged over the chains. */
typedef struct errors { double mse, rmsd, fitted; } errors;

typedef struct run run;

/* A model gives what is to be added to the places of a chain's atoms, [atoms,3]. */
typedef struct network {
    const char *name;
    /* where nothing is asked for: */
    double rate;             /* of Adam                                                           */
    const char *dim, *heads;
    int depth, lmax, reversible;
    /* an atom sees those along the chain, too, and which of a residue's three atoms it is */
    int told;
    eqnn_tensor *(*correct)(const run *r, const chain *x);
} network;

struct run {
    const study *s;
    const network *net;
    char name[64];
    eqnn_ctx *c;             /* of the weights */
    eqnn_parts *workers;
    eqnn_run *run;
    double rate;
    const char *dim, *heads;
    int depth, lmax, reversible, reach;
    double *moved, *after;   /* [residues][ROW]: what goes in and what came out                   */
    /* a batch */
    const int *items;
    int n, learning;
    double loss[MOST_BATCH], memory[MOST_PARTS];
    /* what came out */
    errors test;
};

static int residues_of(const study *s, int item)
{
    return s->m->first[item + 1] - s->m->first[item];
}

/* Where the numbers of a chain begin in arrays [residues][ROW]. */
static size_t place(const study *s, int item)
{
    return ROW * (size_t)s->m->first[item];
}

/* ------------------------------------------------------------------------------------------------
   The gated network: convolutions along the edges, and maps of each atom
   ---------------------------------------------------------------------------------------------- */

typedef struct gated {
    const run *r;
    const eqnn_graph *g;
    int dim;
    char features[120];      /* what an atom carries through the network */
} gated;

/* How many edges enter an atom. */
static int usual(const run *r) { return 2 * r->reach + r->s->neighbours; }

/* Rows divided by the root of their mean square, so that deep networks do not grow. */
static eqnn_tensor *level(eqnn_tensor *x)
{
    eqnn_tensor *square = eqnn_mean_cols(eqnn_square(eqnn_as(x, NULL)));
    return eqnn_div(x, eqnn_sqrt(eqnn_shift(square, 1e-6)));
}

/* x: features, harmonics of the edges, and what the radial networks see. */
static eqnn_tensor *talk(int block, eqnn_tensor *const *x, int n, void *user)
{
    const gated *t = user;
    (void)n;
    eqnn_conv_opts o = { .radial_neurons = 4 * t->dim, .neighbours = usual(t->r) };
    eqnn_tensor *h = eqnn_enter(level(x[0]), eqnn_format(eqnn_context(x[0]), "talk.%d", block));
    h = eqnn_gated_conv(h, NULL, x[1], x[2], t->g, "conv", t->features, &o);
    return eqnn_leave(eqnn_irreps_linear(h, "linear", t->features, NULL));
}

/* A gate between two linear maps. */
static eqnn_tensor *think(int block, eqnn_tensor *const *x, int n, void *user)
{
    static const eqnn_act scalars[2] = { EQNN_SILU, EQNN_TANH }, gates[1] = { EQNN_SIGMOID };
    const gated *t = user;
    eqnn_ctx *c = eqnn_context(x[0]);
    int d = t->dim;
    (void)n;
    eqnn_gate_spec spec = { .act_scalars = scalars, .act_gates = gates };
    spec.scalars = eqnn_irreps_make(c, eqnn_format(c, "%dx0e+%dx0o", 2 * d, d));
    spec.gates = eqnn_irreps_make(c, eqnn_format(c, "%dx0e", 3 * d));
    spec.gated = eqnn_irreps_make(c, eqnn_format(c, "%dx1o+%dx1e+%dx2e", d, d, d));
    const eqnn_irreps *wide = eqnn_gate_in(c, &spec);
    eqnn_tensor *h = eqnn_enter(level(x[0]), eqnn_format(c, "think.%d", block));
    h = wide ? eqnn_gate(eqnn_irreps_linear(h, "up", wide->name, NULL), &spec) : NULL;
    return eqnn_leave(eqnn_irreps_linear(h, "down", t->features, NULL));
}

/* A constant pseudoscalar among the features tells left from right, which a network of all
   reflections could not: proteins are made of one kind of two mirror images. */
static eqnn_tensor *begin(const gated *t, const chain *x)
{
    eqnn_ctx *c = x->c;
    int d = 2 * t->dim;
    eqnn_tensor *h = eqnn_embedding(c, x->token, "token", KINDS * ATOMS, d, NULL);
    h = eqnn_as(h, eqnn_irreps_make(c, eqnn_format(c, "%dx0e", d)));
    eqnn_tensor *hand = eqnn_as(eqnn_full(c, x->atoms, 1, 1), eqnn_irreps_make(c, "1x0o"));
    return eqnn_irreps_linear(eqnn_concat(h, hand), "begin", t->features, NULL);
}

/* The sum of all edges times a number for each step along the chain: what a linear filter does. */
static eqnn_tensor *weighted_edges(const run *r, const chain *x, eqnn_tensor *edge)
{
    eqnn_init zeros = { .kind = EQNN_INIT_ZEROS };
    int taps = ATOMS * (2 * r->reach + 1);
    eqnn_tensor *w = eqnn_embedding(x->c, x->tap, "filter", taps, 1, &zeros);
    return eqnn_scatter(eqnn_scale_copies(edge, w), x->g);
}

static eqnn_tensor *correct_gated(const run *r, const chain *x)
{
    const study *s = r->s;
    int d = atoi(r->dim);
    gated t = { .r = r, .g = x->g, .dim = d };
    snprintf(t.features, sizeof t.features, "%dx0e+%dx0o+%dx1o+%dx1e+%dx2e", 2 * d, d, d, d, d);
    eqnn_conv_opts o = { .radial_neurons = 4 * d, .neighbours = usual(r) };
    eqnn_tensor *edge = eqnn_edge_vectors(x->pos, x->g), *in[3];
    eqnn_tensor *basis = eqnn_radial_basis(eqnn_norm(edge), 16, s->radius, NULL);
    eqnn_tensor *steps = eqnn_embedding(x->c, x->offset, "offset", 2 * r->reach + 1, 16, NULL);
    in[0] = begin(&t, x);
    in[1] = eqnn_spherical_harmonics(edge, r->lmax, &(eqnn_harmonics_opts){ .normalize = 1 });
    in[2] = eqnn_concat(basis, steps);
    if (r->reversible) {
        in[0] = eqnn_reversible(talk, think, r->depth, in, 3, &t, sizeof t);
    } else {
        for (int k = 0; k < r->depth; k++) {
            in[0] = eqnn_add(in[0], talk(k, in, 3, &t));
            in[0] = eqnn_add(in[0], think(k, in, 3, &t));
        }
    }
    in[0] = eqnn_conv(level(in[0]), NULL, in[1], in[2], x->g, "end",
                      eqnn_irreps_make(x->c, "1x1o"), &o);
    in[0] = eqnn_scale(in[0], 0.1);
    return eqnn_add(in[0], weighted_edges(r, x, edge));
}

/* ------------------------------------------------------------------------------------------------
   The Equiformer
   ---------------------------------------------------------------------------------------------- */

static eqnn_tensor *correct_equiformer(const run *r, const chain *x)
{
    eqnn_equiformer_opts o = { .dim = r->dim, .dim_head = r->dim, .heads = r->heads,
                               .degrees = r->lmax + 1, .depth = r->depth, .tokens = TOKENS,
                               .reduce = 1, .reversible = r->reversible };
    if (r->net->told) {
        o.tokens = KINDS * ATOMS;
        o.edge_token = x->offset;
        o.edge_tokens = 2 * r->reach + 1;
        o.edge_dim = 16;
    }
    eqnn_tensor *y = eqnn_equiformer(NULL, x->token, x->pos, x->g, "", &o);
    y = eqnn_extract_irrep(y, 1, -1);
    if (!r->net->told) return y;
    y = eqnn_scale(y, 0.1);
    return eqnn_add(y, weighted_edges(r, x, eqnn_edge_vectors(x->pos, x->g)));
}

static const network networks[] = {
    { "gated", 2e-3, "16", "", 3, 2, 0, 1, correct_gated },
    { "equiformer", 1e-4, "16,8,8,8", "4,2,2,2", 10, 3, 1, 0, correct_equiformer },
    { "equiformer-chain", 1e-3, "16,8,8", "2,2,2", 3, 2, 0, 1, correct_equiformer },
    { NULL, 0, NULL, NULL, 0, 0, 0, 0, NULL }
};

/* ------------------------------------------------------------------------------------------------
   Chains as graphs
   ---------------------------------------------------------------------------------------------- */

/* Edges from the atoms at most so many steps away along the chain, and from the k nearest ones. */
static const eqnn_graph *connect(eqnn_tensor *pos, int atoms, int neighbours, int reach)
{
    eqnn_ctx *c = eqnn_context(pos);
    const eqnn_graph *near = eqnn_knn_graph(pos, neighbours, NULL);
    size_t room = (size_t)atoms * 2 * (size_t)reach + (size_t)(near ? near->edges : 0) + 1;
    int *source = malloc(room * sizeof *source), *target = malloc(room * sizeof *target), n = 0;
    for (int t = 0; t < atoms && source && target; t++)
        for (int u = t - reach; u <= t + reach; u++)
            if (u >= 0 && u < atoms && u != t) source[n] = u, target[n++] = t;
    for (int e = 0; near && e < near->edges && source && target; e++)
        if (abs(near->source[e] - near->target[e]) > reach)
            source[n] = near->source[e], target[n++] = near->target[e];
    const eqnn_graph *g = eqnn_graph_make(c, n, source, target,
        &(eqnn_graph_opts){ .sources = atoms, .targets = atoms });
    free(source);
    free(target);
    return g;
}

/* What one chain is to a network; offsets beyond the reach count as 0, which no edge has. */
static int look(const run *r, eqnn_ctx *c, int item, const double *moved, chain *x)
{
    const study *s = r->s;
    int n = residues_of(s, item), from = s->m->first[item];
    x->c = c;
    x->atoms = ATOMS * n;
    x->pos = eqnn_as(eqnn_from_double(c, x->atoms, 3, moved + place(s, item)),
                     eqnn_irreps_make(c, "1x1o"));
    x->g = connect(x->pos, x->atoms, s->neighbours, r->reach);
    if (!x->g) return 0;
    int most = x->g->edges > x->atoms ? x->g->edges : x->atoms;
    int *word = malloc(((size_t)most + 1) * sizeof *word);
    if (!word) return eqnn_fail(c, "no memory"), 0;
    for (int i = 0; i < x->atoms; i++) {
        int kind = s->m->kind[from + i / ATOMS];
        word[i] = r->net->told ? ATOMS * kind + i % ATOMS : kind;
    }
    x->token = eqnn_ints_make(c, x->atoms, word, r->net->told ? KINDS * ATOMS : TOKENS, 0);
    for (int e = 0; e < x->g->edges; e++) {
        int steps = x->g->source[e] - x->g->target[e];
        word[e] = r->reach + (abs(steps) > r->reach ? 0 : steps);
    }
    x->offset = eqnn_ints_make(c, x->g->edges, word, 2 * r->reach + 1, 0);
    for (int e = 0; e < x->g->edges; e++) word[e] = ATOMS * word[e] + x->g->target[e] % ATOMS;
    x->tap = eqnn_ints_make(c, x->g->edges, word, ATOMS * (2 * r->reach + 1), 0);
    free(word);
    return !eqnn_error(c);
}

/* Where the atoms were, says the network. */
static eqnn_tensor *denoised(const run *r, eqnn_ctx *c, int item, const double *moved)
{
    chain x;
    if (!look(r, c, item, moved, &x)) return NULL;
    return eqnn_add(x.pos, r->net->correct(r, &x));
}

/* ------------------------------------------------------------------------------------------------
   Data
   ---------------------------------------------------------------------------------------------- */

/* One more file; its chains follow those that are there. */
static void add_file(study *s, const char *path)
{
    eqnn_proteins *m = eqnn_protein_open(s->c, path), *all;
    if (!m) {
        char why[400];
        snprintf(why, sizeof why, "%s", eqnn_error(s->c));
        eqnn_clear(s->c);
        eqnn_fail(s->c, "%.80s: %s", path, why);
        return;
    }
    all = eqnn_proteins_join(s->c, s->m, m);
    eqnn_proteins_free(m);
    if (!all) return;
    eqnn_proteins_free(s->m);
    s->m = all;
}

#ifndef _WIN32
static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}
#endif

/* The .pdb and .ent files of a folder in the order of their names; 0 when it is no folder. */
static int add_folder(study *s, const char *path)
{
#ifdef _WIN32
    (void)s, (void)path;
    return 0;
#else
    enum { MOST = 100000 };
    DIR *folder = opendir(path);
    struct dirent *entry;
    char **list = folder ? malloc(MOST * sizeof *list) : NULL;
    int n = 0;
    while (list && n < MOST && (entry = readdir(folder))) {
        const char *end = strrchr(entry->d_name, '.');
        if (!end || (strcmp(end, ".pdb") && strcmp(end, ".ent"))) continue;
        list[n] = malloc(strlen(path) + strlen(entry->d_name) + 2);
        if (list[n]) sprintf(list[n++], "%s/%s", path, entry->d_name);
    }
    if (folder) closedir(folder);
    if (list) qsort(list, (size_t)n, sizeof *list, by_name);
    for (int i = 0; i < n; i++) {
        if (!eqnn_error(s->c)) add_file(s, list[i]);
        free(list[i]);
    }
    if (list && n == 0) eqnn_fail(s->c, "%s: there is no .pdb or .ent file", path);
    free(list);
    return folder != NULL;
#endif
}

static void read_files(study *s)
{
    char path[1024];
    for (const char *p = s->data; *p && !eqnn_error(s->c);) {
        int n = (int)strcspn(p, ",");
        snprintf(path, sizeof path, "%.*s", n < 1000 ? n : 1000, p);
        if (n && !add_folder(s, path)) add_file(s, path);
        p += n + (p[n] == ',');
    }
    if (s->m)
        printf("%d chains, %d residues; left out: %d models, %d backbone atoms in a second place, "
               "%d HETATM lines, %d incomplete residues, %d broken lines\n", s->m->chains,
               s->m->residues, s->m->models, s->m->alternates, s->m->hetero, s->m->incomplete,
               s->m->broken);
}

/* Gaussian noise that depends on --data-seed, the chain and the round; round -1: of the test. */
static void make_noise(const study *s, int item, int64_t round, double *moved)
{
    char name[64];
    size_t at = place(s, item), n = ROW * (size_t)residues_of(s, item);
    snprintf(name, sizeof name, "chain %d round %lld", item, (long long)round);
    eqnn_random(s->c, name, 1, n, moved + at);
    for (size_t i = at; i < at + n; i++) moved[i] = s->truth[i] + s->noise * moved[i];
}

/* Which chains are in which set; those that are too long or of one residue are in none. */
static int choose_sets(study *s)
{
    int n = s->m->chains, good = 0, *usable = malloc(((size_t)n + 1) * sizeof *usable);
    if (!usable) return eqnn_fail(s->c, "no memory"), 0;
    for (int i = 0; i < n; i++)
        if (residues_of(s, i) >= 2 && residues_of(s, i) <= s->longest) usable[good++] = i;
    if (s->count[TEST] == 0) s->count[TEST] = good / 5 > 1 ? good / 5 : 1;
    if (s->count[TRAIN] == 0) s->count[TRAIN] = good - s->count[TEST];
    s->items = malloc(((size_t)good + 1) * sizeof *s->items);
    if (s->count[TRAIN] < 1 || s->count[TEST] > good - s->count[TRAIN])
        eqnn_fail(s->c, "%d chains to train on and %d to test are more than the %d there are",
                  s->count[TRAIN], s->count[TEST], good);
    if (s->items && !eqnn_error(s->c))
        eqnn_split_counts(s->c, s->data_seed, good, s->count, SETS, s->items, s->first);
    for (int i = 0; s->items && i < s->count[0] + s->count[1] && !eqnn_error(s->c); i++)
        s->items[i] = usable[s->items[i]];
    free(usable);
    return !eqnn_error(s->c);
}

static int prepare(study *s)
{
    if (*s->data) {
        read_files(s);
    } else {
        eqnn_backbone_opts o = { .least = s->least, .most = s->most, .seed = s->data_seed };
        if (s->count[TRAIN] == 0) s->count[TRAIN] = 400;
        if (s->count[TEST] == 0) s->count[TEST] = 40;
        s->m = eqnn_backbones(s->c, &o, 0, s->count[TRAIN] + s->count[TEST]);
    }
    if (eqnn_error(s->c) || !s->m || !choose_sets(s)) return 0;
    size_t all = ROW * (size_t)s->m->residues + 1;
    s->truth = malloc(all * sizeof *s->truth);
    s->moved = calloc(all, sizeof *s->moved);
    s->filtered = calloc(all, sizeof *s->filtered);
    if (!s->truth || !s->moved || !s->filtered) return eqnn_fail(s->c, "no memory"), 0;
    for (int i = 0; i < s->m->residues; i++)
        memcpy(s->truth + ROW * (size_t)i, s->m->pos + 12 * (size_t)i, ROW * sizeof(double));
    for (int i = 0; i < s->count[TEST]; i++) make_noise(s, s->items[i], -1, s->moved);
    return 1;
}

static errors measure(const study *s, const double *pos)
{
    errors e = { 0, 0, 0 };
    for (int i = 0; i < s->count[TEST]; i++) {
        size_t at = place(s, s->items[i]);
        int n = ATOMS * residues_of(s, s->items[i]);
        double d = eqnn_rmsd(n, s->truth + at, pos + at);
        e.rmsd += d / s->count[TEST];
        e.mse += d * d / 3 / s->count[TEST];
        e.fitted += eqnn_rmsd_fitted(n, s->truth + at, pos + at) / s->count[TEST];
    }
    return e;
}

/* ------------------------------------------------------------------------------------------------
   The linear filter: x_i + sum over k of w[atom of i][k] (x_i+k - x_i), fitted on training chains
   ---------------------------------------------------------------------------------------------- */

/* The differences to the atoms k steps away, along one axis; 0 beyond the ends. */
static void taps(const double *x, int atoms, int i, int axis, double *d)
{
    for (int k = 0; k < TAPS; k++) {
        int j = i + (k < SIDE ? k - SIDE : k - SIDE + 1);
        d[k] = j < 0 || j >= atoms ? 0 : x[3 * j + axis] - x[3 * i + axis];
    }
}

/* A w = b by Gauss's elimination with pivots; b is the last column. */
static void solve(int n, double A[][TAPS + 1])
{
    for (int k = 0; k < n; k++) {
        int p = k;
        for (int i = k; i < n; i++)
            if (fabs(A[i][k]) > fabs(A[p][k])) p = i;
        for (int j = 0; j <= n; j++) { double t = A[k][j]; A[k][j] = A[p][j]; A[p][j] = t; }
        for (int i = 0; i < n; i++) {
            double f = i == k || A[k][k] == 0 ? 0 : A[i][k] / A[k][k];
            for (int j = k; j <= n; j++) A[i][j] -= f * A[k][j];
        }
    }
    for (int k = 0; k < n; k++) A[k][n] = A[k][k] == 0 ? 0 : A[k][n] / A[k][k];
}

/* Normal equations of the training chains, each seen once with noise. */
static void fit_filter(const study *s, double *moved, double A[ATOMS][TAPS][TAPS + 1])
{
    double d[TAPS + 1];
    for (int t = 0; t < s->count[TRAIN]; t++) {
        int item = s->items[s->first[TRAIN] + t], atoms = ATOMS * residues_of(s, item);
        make_noise(s, item, -2, moved);
        const double *x = moved + place(s, item), *y = s->truth + place(s, item);
        for (int i = 0; i < 3 * atoms; i++) {
            double (*a)[TAPS + 1] = A[i / 3 % ATOMS];
            taps(x, atoms, i / 3, i % 3, d);
            d[TAPS] = y[i] - x[i];
            for (int k = 0; k < TAPS; k++)
                for (int l = 0; l <= TAPS; l++) a[k][l] += d[k] * d[l];
        }
    }
    for (int a = 0; a < ATOMS; a++) {
        for (int k = 0; k < TAPS; k++) A[a][k][k] += 1e-6; /* where there is nothing */
        solve(TAPS, A[a]);
    }
}

static void filter(study *s)
{
    double *work = malloc((ROW * (size_t)s->m->residues + 1) * sizeof *work), d[TAPS];
    if (work) fit_filter(s, work, s->filter);
    for (int t = 0; work && t < s->count[TEST]; t++) {
        int atoms = ATOMS * residues_of(s, s->items[t]);
        const double *x = s->moved + place(s, s->items[t]);
        double *y = s->filtered + place(s, s->items[t]);
        for (int i = 0; i < 3 * atoms; i++) {
            taps(x, atoms, i / 3, i % 3, d);
            y[i] = x[i];
            for (int k = 0; k < TAPS; k++) y[i] += s->filter[i / 3 % ATOMS][k][TAPS] * d[k];
        }
    }
    if (!work) eqnn_fail(s->c, "no memory");
    free(work);
}

/* ------------------------------------------------------------------------------------------------
   Training
   ---------------------------------------------------------------------------------------------- */

/* The chains of one part of a batch, one after the other. */
static void work(eqnn_ctx *c, int part, int parts, void *user)
{
    run *r = user;
    const study *s = r->s;
    for (int i = part; i < r->n && !eqnn_error(c) && !eqnn_interrupted(); i += parts) {
        size_t at = place(s, r->items[i]);
        int atoms = ATOMS * residues_of(s, r->items[i]);
        eqnn_mark mark = eqnn_mark_make(c);
        eqnn_tensor *y = denoised(r, c, r->items[i], r->moved);
        if (r->learning) {
            eqnn_tensor *loss = eqnn_mse(y, eqnn_from_double(c, atoms, 3, s->truth + at));
            r->loss[i] = eqnn_value(loss);
            eqnn_backward(eqnn_scale(loss, 1.0 / r->n));
        } else {
            for (int k = 0; k < 3 * atoms && y; k++)
                r->after[at + (size_t)k] = eqnn_at(y, k / 3, k % 3);
        }
        eqnn_rewind(mark, NULL);
    }
    r->memory[part] = (double)eqnn_memory_use(c).step_peak;
}

static void share(run *r, const int *items, int n, int learning)
{
    r->items = items, r->n = n, r->learning = learning;
    eqnn_parts_run(r->workers, work, r);
}

static errors evaluate(run *r)
{
    const study *s = r->s;
    int recording = eqnn_recording(r->c, 0), training = eqnn_training(r->c, 0);
    memcpy(r->moved, s->moved, ROW * (size_t)s->m->residues * sizeof *r->moved);
    for (int i = 0; i < s->count[TEST] && !eqnn_error(r->c) && !eqnn_interrupted(); i += s->batch)
        share(r, s->items + i, s->count[TEST] - i < s->batch ? s->count[TEST] - i : s->batch, 0);
    eqnn_recording(r->c, recording);
    eqnn_training(r->c, training);
    return measure(s, r->after);
}

/* One step of Adam; the rate falls to a tenth over the last third of the run. */
static void step(run *r, eqnn_adam *adam, const int *items, int n)
{
    double late = fmax(0, 3 * eqnn_run_done(r->run) - 2), loss = 0;
    for (int i = 0; i < n; i++) make_noise(r->s, items[i], r->run->epoch, r->moved);
    eqnn_adam_rate(adam, r->rate * (1 - 0.9 * late));
    share(r, items, n, 1);
    if (eqnn_interrupted()) { /* the step was not whole */
        eqnn_zero_gradients(r->c);
        return;
    }
    for (int i = 0; i < n; i++) loss += r->loss[i] / n;
    eqnn_adam_step(adam);
    eqnn_reset(r->c);
    eqnn_run_step(r->run, loss, n);
    eqnn_run_show(r->run, "train %.4f A^2, test %.3f A", eqnn_average_value(&r->run->loss),
                  r->test.rmsd);
}

/* A look at the held-out chains, by which no weights are chosen. */
static void observe(run *r, eqnn_csv *log)
{
    errors e = evaluate(r);
    if (!eqnn_run_look(r->run, NAN)) return;
    r->test = e;
    const double row[] = { eqnn_run_epochs(r->run), r->run->seconds / 60,
                           eqnn_average_value(&r->run->loss), r->test.rmsd };
    eqnn_csv_row(log, r->name, 4, row);
}

static void train(run *r, eqnn_csv *log)
{
    const study *s = r->s;
    const int *items;
    eqnn_run_opts o = s->run;
    o.items = s->items + s->first[TRAIN], o.batch = s->batch;
    o.path = eqnn_path_in(s->c, s->out, "%s.safetensors", r->name);
    r->run = eqnn_run_make(r->c, r->name, s->count[TRAIN], &o);
    eqnn_adam *adam = eqnn_adam_make(r->c, &(eqnn_adam_opts){ .rate = r->rate, .clip = s->clip });
    for (int n; (n = eqnn_run_next(r->run, &items)) >= 0;) {
        if (n > 0) step(r, adam, items, n);
        else observe(r, log);
    }
}

/* The fitted filter as first weights. */
static void begin_as_filter(run *r)
{
    int side = SIDE < r->reach ? SIDE : r->reach;
    eqnn_tensor *w = eqnn_parameter(r->c, "filter.weight");
    double *value = calloc((size_t)eqnn_rows(w) + 1, sizeof *value);
    for (int k = -side; value && w && k <= side; k++)
        for (int a = 0; a < ATOMS && k != 0; a++)
            value[ATOMS * (r->reach + k) + a] = r->s->filter[a][k + SIDE - (k > 0)][TAPS];
    if (value && w) eqnn_set(w, value);
    free(value);
}

/* Contexts, and weights by a first look at one chain, which leaves nothing else behind. */
static int start(run *r)
{
    const study *s = r->s;
    size_t all = ROW * (size_t)s->m->residues + 1;
    r->c = eqnn_make(&s->context);
    r->moved = malloc(all * sizeof *r->moved);
    r->after = malloc(all * sizeof *r->after);
    if (!r->c || !r->moved || !r->after) return eqnn_fail(s->c, "no memory for %s", r->name), 0;
    memcpy(r->after, s->moved, (all - 1) * sizeof *r->after);
    r->test = measure(s, s->moved);
    eqnn_mark mark = eqnn_mark_make(r->c);
    eqnn_rewind(mark, denoised(r, r->c, s->items[s->first[TEST]], s->moved));
    eqnn_reset(r->c);
    begin_as_filter(r);
    eqnn_training(r->c, 1);
    r->workers = eqnn_parts_make(r->c, s->parts, s->context.threads);
    return !eqnn_error(r->c);
}

static void finish(run *r)
{
    eqnn_run_free(r->run);
    eqnn_parts_free(r->workers);
    eqnn_free(r->c);
    free(r->moved);
    free(r->after);
}

/* Trains and tests. 0 on an error, or when Ctrl-C came. */
static int study_one(run *r, eqnn_csv *log)
{
    const study *s = r->s;
    if (start(r)) train(r, log);
    if (!eqnn_error(r->c) && !eqnn_interrupted()) r->test = evaluate(r);
    if (r->c && eqnn_error(r->c)) eqnn_fail(s->c, "%s: %s", r->name, eqnn_error(r->c));
    return !eqnn_error(s->c) && !eqnn_interrupted();
}

/* ------------------------------------------------------------------------------------------------
   Reports
   ---------------------------------------------------------------------------------------------- */

/* A row: one of the two baselines (i = -2, -1) or a model. */
static errors row_errors(const study *s, const run *r, int i)
{
    return i == -2 ? measure(s, s->moved) : i == -1 ? measure(s, s->filtered) : r[i].test;
}

static const char *row_name(const run *r, int i)
{
    return i == -2 ? "nothing taken away" : i == -1 ? "linear filter" : r[i].name;
}

/* The highest mark of a worker's step in any part. */
static double megabytes(const run *r)
{
    double most = 0;
    for (int i = 0; i < r->s->parts; i++) most = fmax(most, r->memory[i]);
    return most / 1e6;
}

static void print_summary(const study *s, const run *r, int n)
{
    eqnn_table *t = eqnn_table_make(s->c, "model|weights|epochs|minutes|ms/chain|MSE|RMSD before|"
                                          "RMSD after|superposed|of before|MB");
    double before = measure(s, s->moved).rmsd;
    printf("\n%d held-out chains, %d to learn from; MSE in A^2 a coordinate, RMSD in A:\n\n",
           s->count[TEST], s->count[TRAIN]);
    for (int i = -2; i < n; i++) {
        errors e = row_errors(s, r, i);
        eqnn_table_cell(t, "%s", row_name(r, i));
        eqnn_table_cell(t, i < 0 ? "-" : "%.0f", i < 0 ? 0 : (double)eqnn_parameter_size(r[i].c));
        eqnn_table_number(t, "%.1f", i < 0 ? NAN : eqnn_run_epochs(r[i].run));
        eqnn_table_number(t, "%.1f", i < 0 ? NAN : r[i].run->seconds / 60);
        eqnn_table_number(t, "%.1f", i < 0 ? NAN : 1e3 * r[i].run->step_seconds
                                       / (eqnn_run_epochs(r[i].run) * s->count[TRAIN]));
        eqnn_table_cell(t, "%.4f", e.mse);
        eqnn_table_cell(t, "%.3f", before);
        eqnn_table_cell(t, "%.3f", e.rmsd);
        eqnn_table_cell(t, "%.3f", e.fitted);
        eqnn_table_cell(t, "%.2f", before > 0 ? e.rmsd / before : NAN);
        eqnn_table_cell(t, i < 0 ? "-" : "%.0f", i < 0 ? 0 : megabytes(&r[i]));
    }
    eqnn_table_print(t, stdout);
    eqnn_table_free(t);
}

static void write_summary(const study *s, const run *r, int n)
{
    eqnn_csv *f = eqnn_csv_open(s->c, eqnn_path_in(s->c, s->out, "summary.csv"),
                                "model,weights,epochs,minutes,mse,rmsd,rmsd_superposed", 0);
    for (int i = -2; i < n; i++) {
        errors e = row_errors(s, r, i);
        const double row[] = { i < 0 ? 0 : (double)eqnn_parameter_size(r[i].c),
                               i < 0 ? NAN : eqnn_run_epochs(r[i].run),
                               i < 0 ? NAN : r[i].run->seconds / 60, e.mse, e.rmsd, e.fitted };
        eqnn_csv_row(f, row_name(r, i), 6, row);
    }
    eqnn_csv_close(f);
    f = eqnn_csv_open(s->c, eqnn_path_in(s->c, s->out, "chains.csv"),
                      "model,chain,residues,before,after", 0);
    for (int i = -1; i < n; i++)
        for (int k = 0; k < s->count[TEST]; k++) {
            const double *after = i < 0 ? s->filtered : r[i].after;
            size_t at = place(s, s->items[k]);
            int atoms = ATOMS * residues_of(s, s->items[k]);
            eqnn_csv_text(f, row_name(r, i));
            const double row[] = { atoms / ATOMS, eqnn_rmsd(atoms, s->truth + at, s->moved + at),
                                   eqnn_rmsd(atoms, s->truth + at, after + at) };
            eqnn_csv_row(f, s->m->name[s->items[k]], 3, row);
        }
    eqnn_csv_close(f);
}

/* The two axes along which a chain is longest. */
static void choose_axes(const double *x, int atoms, int axis[2])
{
    double spread[3] = { 0, 0, 0 };
    for (int k = 0; k < 3; k++) {
        double mean = 0;
        for (int i = 0; i < atoms; i++) mean += x[3 * i + k] / atoms;
        for (int i = 0; i < atoms; i++) spread[k] += (x[3 * i + k] - mean) * (x[3 * i + k] - mean);
    }
    int least = spread[0] < spread[1] ? 0 : 1;
    if (spread[2] < spread[least]) least = 2;
    axis[0] = least == 0;
    axis[1] = least == 2 ? 1 : 2;
}

/* The first held-out chain: the truth in grey, over it what there is. */
static void draw_chain(const study *s, const run *r, int n)
{
    eqnn_plot *panel[MOST_RUNS + 2] = { NULL };
    int item = s->items[0], atoms = ATOMS * residues_of(s, item), axis[2];
    const double *truth = s->truth + place(s, item);
    double *x = malloc(4 * (size_t)atoms * sizeof *x), *y = x + atoms;
    if (!x) return;
    choose_axes(truth, atoms, axis);
    for (int i = -2; i < n; i++) {
        char title[128];
        const double *now = (i == -2 ? s->moved : i == -1 ? s->filtered : r[i].after)
                            + place(s, item);
        snprintf(title, sizeof title, "%.60s: %.2f A from the truth", row_name(r, i),
                 eqnn_rmsd(atoms, truth, now));
        panel[i + 2] = eqnn_plot_make(s->c, &(eqnn_plot_opts){ .title = title, .equal = 1,
            .x_label = "A", .y_label = "A", .width = 420, .height = 420 });
        for (int j = 0; j < 2; j++) {
            for (int k = 0; k < atoms; k++) {
                x[k] = (j ? now : truth)[3 * k + axis[0]];
                y[k] = (j ? now : truth)[3 * k + axis[1]];
            }
            eqnn_plot_add(panel[i + 2], j ? "N, CA, C" : "truth", atoms, x, y,
                          &(eqnn_series_opts){ .colour = j ? i < -1 ? "#d55e00" : "#0072b2"
                                                           : "#999999",
                                               .size = j ? 1.4 : 3.2, .opacity = j ? 1 : .6 });
        }
    }
    eqnn_plots_save(s->c, eqnn_path_in(s->c, s->out, "chain.svg"), panel, n + 2,
                    n + 2 < 4 ? n + 2 : 3);
    for (int i = 0; i < n + 2; i++) eqnn_plot_free(panel[i]);
    free(x);
}

static void draw_errors(const study *s, const run *r, int n)
{
    eqnn_plot *p = eqnn_plot_make(s->c, &(eqnn_plot_opts){ .title = "Held-out chains",
        .x_label = "minutes", .y_label = "RMSD in A" });
    for (int i = 0; i < n; i++)
        eqnn_plot_csv(p, eqnn_path_in(s->c, s->out, "log.csv"), r[i].name, 2, 4, NULL);
    eqnn_plot_save(p, eqnn_path_in(s->c, s->out, "errors.svg"));
    eqnn_plot_free(p);
}

static void report(const study *s, const run *r, int n)
{
    double before = measure(s, s->moved).rmsd;
    print_summary(s, r, n);
    for (int i = 0; i < n; i++)
        printf("\n%s brings held-out chains from %.2f to %.2f A of the truth.\n", r[i].name, before,
               r[i].test.rmsd);
    if (!*s->out) return;
    write_summary(s, r, n);
    draw_chain(s, r, n);
    draw_errors(s, r, n);
    if (!eqnn_error(s->c)) printf("Tables, pictures and models are in %s.\n", s->out);
}

/* ------------------------------------------------------------------------------------------------
   The program
   ---------------------------------------------------------------------------------------------- */

/* What the model suggests where nothing is asked for. */
static void settle(run *r, const network *net)
{
    const study *s = r->s;
    r->net = net;
    r->rate = s->rate > 0 ? s->rate : net->rate;
    r->dim = *s->dim ? s->dim : net->dim;
    r->heads = *s->heads ? s->heads : net->heads;
    r->depth = s->depth >= 0 ? s->depth : net->depth;
    r->lmax = s->lmax >= 0 ? s->lmax : net->lmax;
    r->reversible = *s->reversible ? !strcmp(s->reversible, "on") : net->reversible;
    r->reach = net->told ? s->reach : 0;
    snprintf(r->name, sizeof r->name, "%s", net->name);
}

static int list_runs(study *s, run *r)
{
    const char *list = s->models, *word;
    int n = 0;
    for (int length; (length = eqnn_next_word(&list, &word)) > 0 && !eqnn_error(s->c);) {
        const network *net = networks;
        while (net->name && (strncmp(word, net->name, (size_t)length) || net->name[length])) net++;
        if (!net->name || n == MOST_RUNS) {
            eqnn_fail(s->c, "--model: there is no '%.*s', or there are too many", length, word);
            break;
        }
        r[n].s = s;
        settle(&r[n++], net);
    }
    return n;
}

static void run_all(study *s)
{
    static run r[MOST_RUNS];
    eqnn_csv *log = NULL;
    int finished = 0, n = list_runs(s, r);
    if (!eqnn_error(s->c) && prepare(s)) filter(s);
    if (*s->out && !eqnn_error(s->c) && eqnn_make_folder(s->c, s->out))
        log = eqnn_csv_open(s->c, eqnn_path_in(s->c, s->out, "log.csv"),
                            "model,epoch,minutes,train_mse,rmsd", s->run.resume);
    for (int i = 0; i < n && *s->out && !s->run.resume && !eqnn_error(s->c); i++)
        eqnn_run_forget(eqnn_path_in(s->c, s->out, "%s.safetensors", r[i].name));
    while (finished < n && !eqnn_error(s->c) && study_one(&r[finished], log)) finished++;
    eqnn_csv_close(log);
    if (finished == n && n > 0 && !eqnn_error(s->c)) report(s, r, n);
    else if (eqnn_interrupted() && !eqnn_error(s->c))
        printf("Interrupted%s.\n", *s->out ? "; the same command with --resume continues" : "");
    for (int i = 0; i < n; i++) finish(&r[i]);
}

static const eqnn_option options[] = {
    { "model", "gated", "equiformer, equiformer-chain, gated, or a list" },
    { "data", "", "PDB files, folders of them, npz files, with commas between; empty: generated" },
    { "length", "40,80", "least and most residues of a generated chain" },
    { "longest", "512", "chains of more residues are left out" },
    { "n-train", "0", "chains to learn from; 0: all that are left, or 400 generated ones" },
    { "n-test", "0", "chains held out; 0: a fifth, or 40 generated ones" },
    { "noise", "1", "its deviation along each axis, angstrom" },
    { "neighbours", "6", "nearest atoms that an atom sees" },
    { "reach", "12", "and how many before and after it in the chain" },
    { "radius", "15", "where the functions of the distance end, angstrom" },
    { "dim", "", "channels, of an Equiformer also those of a head [16; 16,8,8,8; 16,8,8]" },
    { "heads", "", "of an Equiformer [4,2,2,2; 2,2,2]" },
    { "depth", "", "blocks [3; 10; 3]" },
    { "lmax", "", "largest degree [2; 3; 2]" },
    { "reversible", "", "blocks in two streams, on or off [on for equiformer]" },
    { "rate", "0", "of Adam; 0: what suits the model [2e-3; 1e-4; 1e-3]" },
    { "clip", "10", "largest norm of the gradient; 0: any" },
    { "batch", "16", "chains of an optimizer step" },
    { "minutes", "10", "of training each model; with --epochs: no limit" },
    { "epochs", "100", "passes over the training chains, in the place of --minutes" },
    { "parts", "2", "a batch is cut into, each for a thread" },
    { "evals", "10", "how often to look at the held-out chains" },
    { "data-seed", "1", "of chains, split and noise; --seed is that of the weights" },
    { "out", "build/denoise", "folder for tables, pictures and models; empty: none" },
    { NULL, NULL, NULL }
};

/* What --resume needs to be told as before. */
static const char repeated[] =
    "length,longest,n-train,n-test,noise,neighbours,reach,radius,rate,clip,batch,"
    "data-seed,seed";

static void understand_model(study *s, eqnn_args *a)
{
    s->models = eqnn_args_text(a, "model");
    s->neighbours = eqnn_args_int(a, "neighbours", 1, 1000);
    s->reach = eqnn_args_int(a, "reach", 0, MOST_REACH);
    s->radius = eqnn_args_within(a, "radius", 0, 1e300);
    s->dim = eqnn_args_text(a, "dim");
    s->heads = eqnn_args_text(a, "heads");
    s->depth = *eqnn_args_text(a, "depth") ? eqnn_args_int(a, "depth", 0, 1000) : -1;
    s->lmax = *eqnn_args_text(a, "lmax") ? eqnn_args_int(a, "lmax", 1, 8) : -1;
    s->reversible = eqnn_args_text(a, "reversible");
    if (*s->dim && atoi(s->dim) < 1)
        eqnn_args_fail(a, "option --dim wants numbers, not '%s'", s->dim);
}

static void understand(study *s, eqnn_args *a)
{
    understand_model(s, a);
    s->data = eqnn_args_text(a, "data");
    s->out = eqnn_args_text(a, "out");
    if (sscanf(eqnn_args_text(a, "length"), "%d,%d", &s->least, &s->most) != 2)
        eqnn_args_fail(a, "option --length wants two numbers, such as 40,80");
    s->longest = eqnn_args_int(a, "longest", 2, 100000);
    s->count[TRAIN] = eqnn_args_int(a, "n-train", 0, 1000000);
    s->count[TEST] = eqnn_args_int(a, "n-test", 0, 1000000);
    s->noise = eqnn_args_within(a, "noise", 0, 1e300);
    s->rate = eqnn_args_within(a, "rate", 0, 1e300);
    s->clip = eqnn_args_within(a, "clip", 0, 1e300);
    s->batch = eqnn_args_int(a, "batch", 1, MOST_BATCH);
    s->parts = eqnn_args_int(a, "parts", 1, MOST_PARTS);
    s->run = eqnn_args_run(a, repeated);
    s->data_seed = (uint64_t)eqnn_args_int(a, "data-seed", 1, 2147483647);
    s->context = eqnn_args_context(a);
}

static void release(study *s)
{
    eqnn_proteins_free(s->m);
    free(s->truth);
    free(s->moved);
    free(s->filtered);
    free(s->items);
}

int main(int argc, char **argv)
{
    study s = { 0 };
    eqnn_args a;
    int go = eqnn_args_read(&a, argc, argv, "Takes noise away from protein backbones.", options);
    if (go > 0) understand(&s, &a);
    s.c = eqnn_program_start(&a, &(eqnn_opts){ .seed = s.data_seed }); /* of data and noise */
    if (s.c) run_all(&s);
    release(&s);
    return eqnn_program_end(&a, s.c);
}
