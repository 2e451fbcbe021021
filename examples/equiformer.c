/* equiformer.c - the four programs of equiformer-pytorch's README, and EquiformerV2 as published

   cc -O2 -I. examples/equiformer.c -lm -o equiformer && ./equiformer   (--help lists the options)

   YOU WILL SEE   for each program the sizes of its outputs, its number of weights (which is the
                  original's), seconds of a forward pass and of a step, memory, and how well it
                  commutes with rotations. With --v2 31M,83M,153M the published models of
                  EquiformerV2: settings, shapes, number of weights beside the published one, and
                  the same measurements on a few atoms, which --dry-run leaves out. Rotations
                  change its results by what the published grids of 18 x 18 points leave out.
   IT TEACHES     tokens, features, kinds of edges, bonds and neighbours go into one network; a
                  scalar and a vector for every node come out; a trunk of 48 blocks takes the memory
                  of one when it is reversible.

   The original: Phil Wang, equiformer-pytorch 0.5.4. The network: Liao and Smidt 2022,
   arXiv:2206.11990. EquiformerV2: Liao, Wood, Das, Smidt 2024, arXiv:2306.12059.

   "make test" runs it with
      --example 0 --nodes 12 --v2 L2M1x1 --threads 1 */
#define EQNN_IMPLEMENTATION
#include "eqnn.h"
#include "eqnn_data.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What a program is made of: its network, and what the network is given. */
typedef struct program {
    const char *about;
    int batch, nodes;
    int scalars;              /* features of a node; 0: tokens                    */
    int tokens, kinds;        /* how many there are; kinds of edges, 0: all alike */
    int bonds;                /* nodes are a chain, and hear who is near on it    */
    eqnn_equiformer_opts o;
} program;

static const program programs[] = {
    { "tokens, everybody hears everybody", 1, 128, 0, 24, 0, 0,
      { .dim = "4,4,2", .dim_head = "4,4,4", .heads = "2,2,2", .degrees = 3, .depth = 4,
        .reduce = 1, .mlp = 1 } },
    { "the same, reversible and 48 blocks deep", 1, 128, 0, 24, 0, 0,
      { .dim = "4,4,2", .dim_head = "4,4,4", .heads = "2,2,2", .degrees = 3, .depth = 48,
        .reversible = 1 } },
    { "two examples, edges of four kinds", 2, 32, 0, 28, 4, 0,
      { .dim = "64", .edge_dim = 16, .depth = 2, .degrees = 3, .reduce = 1 } },
    { "a chain, bonded up to second neighbours", 1, 128, 32, 0, 0, 2,
      { .dim = "32", .heads = "8", .depth = 1, .dim_head = "64", .degrees = 2, .reduce = 1 } }
};
enum { PROGRAMS = sizeof programs / sizeof programs[0] };

/* --- inputs --- */

typedef struct inputs {
    const program *p;
    int rows, *example;
    eqnn_ints *tokens;
    const eqnn_graph *bonds;
} inputs;

/* A chain: each node is bonded to the one before it and the one after it. */
static const eqnn_graph *chain(eqnn_ctx *c, int n)
{
    int *source = (int *)malloc(4 * (size_t)n * sizeof(int)), *target, edges = 0;
    eqnn_graph_opts o = { .sources = n, .targets = n, .keep = 1 };
    const eqnn_graph *g = NULL;
    if (!source) return NULL;
    target = source + 2 * n;
    for (int i = 0; i + 1 < n; i++) {
        source[edges] = i, target[edges++] = i + 1;
        source[edges] = i + 1, target[edges++] = i;
    }
    g = eqnn_graph_make(c, edges, source, target, &o);
    free(source);
    return g;
}

static int make_inputs(eqnn_ctx *c, const program *p, int nodes, inputs *in)
{
    memset(in, 0, sizeof *in);
    in->p = p;
    in->rows = p->batch * nodes;
    in->example = (int *)malloc((size_t)in->rows * sizeof(int));
    int *token = (int *)malloc((size_t)in->rows * sizeof(int));
    for (int i = 0; in->example && i < in->rows; i++) in->example[i] = i / nodes;
    for (int i = 0; token && i < in->rows && p->tokens; i++) token[i] = 5 * i % p->tokens;
    if (p->tokens && token) in->tokens = eqnn_ints_make(c, in->rows, token, p->tokens, 1);
    if (p->bonds) in->bonds = chain(c, in->rows);
    free(token);
    return in->example && !eqnn_error(c);
}

/* x[0]: positions, x[1]: features or nothing */
static eqnn_tensor *run_network(eqnn_tensor *const *x, int n, void *user)
{
    const inputs *in = (const inputs *)user;
    const program *p = in->p;
    eqnn_equiformer_opts o = p->o;
    eqnn_ctx *c = eqnn_context(x[0]);
    eqnn_neighbour_opts near = { .example = in->example, .examples = p->batch };
    near.bonds = in->bonds;
    near.bond_degrees = p->bonds;
    near.max_bonds = p->bonds ? 8 : 0;
    near.neighbours = p->bonds ? -1 : 0; /* bonds only, or all others */
    const eqnn_graph *g = eqnn_neighbour_graph(x[0], &near);
    if (p->kinds && g) {
        int *kind = (int *)malloc(((size_t)g->edges + 1) * sizeof(int));
        for (int e = 0; kind && e < g->edges; e++)
            kind[e] = (3 * g->source[e] + g->target[e]) % p->kinds;
        o.edge_token = kind ? eqnn_ints_make(c, g->edges, kind, p->kinds, 0) : NULL;
        free(kind);
    }
    return eqnn_equiformer(n > 1 ? x[1] : NULL, in->tokens, x[0], g, "", &o);
}

/* --- what is printed --- */

/* The last maps of attention and feed-forward are zero at first, and the trunk does nothing: the
   error shall tell of all layers. */
static void stir(eqnn_ctx *c)
{
    for (int i = 0; i < eqnn_parameter_count(c); i++) {
        const char *name = eqnn_parameter_name(c, i);
        eqnn_tensor *w = eqnn_parameter_at(c, i);
        size_t n = (size_t)eqnn_rows(w) * (size_t)eqnn_cols(w);
        double *v = (double *)malloc((n + 1) * sizeof *v);
        if (v && (strstr(name, "project_out") || strstr(name, "to_out"))) {
            eqnn_random(c, name, 1, n, v);
            for (size_t k = 0; k < n; k++) v[k] /= sqrt((double)eqnn_rows(w));
            eqnn_set(w, v);
        }
        free(v);
    }
}

/* max |a - b| / max |b| */
static double largest_difference(eqnn_tensor *a, eqnn_tensor *b)
{
    double worst = 0, size = 0;
    for (int i = 0; i < eqnn_rows(b); i++)
        for (int k = 0; k < eqnn_cols(b); k++) {
            worst = fmax(worst, fabs(eqnn_at(a, i, k) - eqnn_at(b, i, k)));
            size = fmax(size, fabs(eqnn_at(b, i, k)));
        }
    return worst / size;
}

/* Rotations only: the network tells left from right. */
static double rotation_error(eqnn_tensor *const *x, int n, inputs *in)
{
    eqnn_ctx *c = eqnn_context(x[0]);
    eqnn_tensor *y = run_network(x, n, in), *z[2] = { NULL, n > 1 ? x[1] : NULL };
    double R[9];
    eqnn_rotation_random(c, "turn", 0, R);
    z[0] = eqnn_rotate(x[0], R);
    return largest_difference(run_network(z, n, in), eqnn_rotate(y, R));
}

/* One line of the table. */
static void show(eqnn_table *t, eqnn_ctx *c, int number, int nodes)
{
    const program *p = &programs[number];
    inputs in;
    if (!make_inputs(c, p, nodes > 0 ? nodes : p->nodes, &in)) return;
    eqnn_tensor *pos = eqnn_normal(c, "positions", in.rows, 3), *x[2] = { pos, NULL };
    int n = 1;
    x[0] = eqnn_as(pos, eqnn_irreps_make(c, "1x1o"));
    if (p->scalars) x[n++] = eqnn_normal(c, "features", in.rows, p->scalars);
    for (int i = 0; i < n; i++) x[i] = eqnn_keep(x[i]);
    eqnn_tensor *y = NULL;
    double forward = 0, step = 0;
    for (int k = 0; k < 2; k++) { /* the first step makes the weights, and touches the memory */
        eqnn_reset(c);
        double start = eqnn_clock();
        y = run_network(x, n, &in);
        forward = eqnn_clock() - start;
        eqnn_backward(eqnn_sum(eqnn_extract_irrep(y, 0, 1)));
        step = eqnn_clock() - start;
    }
    int rows = eqnn_rows(y), scalars = eqnn_irreps_count(eqnn_label_of(y), 0, 1);
    int vectors = eqnn_irreps_count(eqnn_label_of(y), 1, -1);
    stir(c);
    double memory = (double)eqnn_memory_use(c).step_peak;
    eqnn_reset(c);
    eqnn_table_cell(t, "%d", number + 1);
    eqnn_table_cell(t, "%d x %d", rows, scalars);
    eqnn_table_cell(t, "%d x %d x 3", rows, vectors);
    eqnn_table_cell(t, "%zu", eqnn_parameter_size(c));
    eqnn_table_cell(t, "%.3f s", forward);
    eqnn_table_cell(t, "%.3f s", step);
    eqnn_table_cell(t, "%.0f MB", memory * 1e-6);
    eqnn_table_cell(t, "%.1e", rotation_error(x, n, &in));
    free(in.example);
}

/* --- EquiformerV2 --- */

/* Largest degree, largest order in the frame of an edge, blocks; the weights of the models that
   were trained on OC20, whose other settings are the defaults, and whose elements are 90. */
typedef struct model { const char *name; int lmax, mmax, blocks; double weights; } model;
static const model models[] = {
    { "31M", 4, 2, 8, 31058690 }, { "83M", 6, 2, 12, 83164802 }, { "153M", 6, 3, 20, 153602690 },
    { "L8M2x12", 8, 2, 12, 134282242 }, { "L6M6x12", 6, 6, 12, 106627202 }
};
enum { ELEMENTS = 90, RINGS = 18, SMALL = 12 }; /* RINGS of a grid and points of a ring; atoms */

/* The model of a name, or what "L2M1x3" says. */
static int find_model(const char *word, int length, model *m)
{
    char name[32] = "", rest;
    if (length < (int)sizeof name) memcpy(name, word, (size_t)length);
    for (size_t i = 0; i < sizeof models / sizeof models[0]; i++)
        if (!strcmp(name, models[i].name)) return *m = models[i], 1;
    m->name = word, m->weights = 0;
    return sscanf(name, "L%2dM%2dx%3d%c", &m->lmax, &m->mmax, &m->blocks, &rest) == 3 &&
           m->lmax > 0 && m->lmax < 12 && m->mmax >= 0 && m->mmax <= m->lmax && m->blocks > 0;
}

typedef struct atoms {
    model m;
    eqnn_ints *species;
    const eqnn_graph *g;
} atoms;

/* Energy [1,1], and forces [nodes,3]. */
static eqnn_tensor *run_v2(const atoms *a, eqnn_tensor *pos, eqnn_tensor **forces)
{
    eqnn_equiformer_v2_opts o = { .lmax = a->m.lmax, .mmax = a->m.mmax > 0 ? a->m.mmax : -1,
                                  .blocks = a->m.blocks, .beta = RINGS, .points = RINGS,
                                  .forces = forces };
    return eqnn_equiformer_v2(a->species, pos, a->g, "", &o);
}

/* Atoms of many elements, all within the radius of each other. */
static eqnn_tensor *make_atoms(eqnn_ctx *c, const model *m, int nodes, atoms *a)
{
    int *kind = (int *)malloc((size_t)nodes * sizeof(int));
    eqnn_graph_opts keep = { .keep = 1 };
    for (int i = 0; kind && i < nodes; i++) kind[i] = 7 * i % ELEMENTS;
    a->m = *m;
    a->species = kind ? eqnn_ints_make(c, nodes, kind, ELEMENTS, 1) : NULL;
    a->g = eqnn_complete_graph(c, nodes, &keep);
    free(kind);
    return eqnn_keep(eqnn_scale(eqnn_normal(c, "positions", nodes, 3), 2));
}

/* How much of a weight's name says which part of the network it is in:
   "blocks.0.ga.so2_conv_1.fc_m0.weight" is in "blocks.0.ga.so2_conv_1" */
static int part_of(const char *name)
{
    int words = !strncmp(name, "blocks.0.ga.", 12) ? 4 : !strncmp(name, "blocks.", 7) ? 3 :
                !strncmp(name, "force_block.", 12) ? 2 : 1, i = 0;
    for (; name[i]; i++)
        if (name[i] == '.' && --words == 0) break;
    return i;
}

/* Lists the parts of a network of one block, which stands for all, and the shapes of their
   matrices. Returns all blocks' weights. */
static double show_parts(eqnn_ctx *c, const model *m)
{
    double sum = 0;
    printf("%-30s %10s times  matrices\n", "part", "weights");
    for (int i = 0, n = eqnn_parameter_count(c); i < n;) {
        const char *first = eqnn_parameter_name(c, i);
        int length = part_of(first), times = strncmp(first, "blocks.", 7) ? 1 : m->blocks;
        char shapes[200] = "";
        double own = 0;
        for (; i < n; i++) {
            const char *name = eqnn_parameter_name(c, i);
            const eqnn_tensor *w = eqnn_parameter_at(c, i);
            size_t used = strlen(shapes);
            if (strncmp(name, first, (size_t)length) || part_of(name) != length) break;
            own += (double)eqnn_rows(w) * eqnn_cols(w);
            if (eqnn_rows(w) > 1)
                snprintf(shapes + used, sizeof shapes - used, " %dx%d", eqnn_rows(w), eqnn_cols(w));
        }
        printf("%-30.*s %10.0f x %-4d%s\n", length, first, own, times, shapes);
        sum += own * times;
    }
    return sum;
}

/* What the model is, counted on one block. Returns whether the weights are as many as published. */
static int describe(const eqnn_opts *o, const model *m, int length)
{
    static const char *const about =
        "degrees to %d; orders to %d in the frame of an edge; blocks: %d.\n"
        "128 channels; attention: 64 channels within, 8 heads of 64 for logits and 16 for values;\n"
        "networks 128 wide at %d x %d points of a sphere; 600 gaussians to 12 angstroms; "
        "%d elements.\n"
        "species [%d], positions [%d,3], edges [%d,600] -> features [%d,%d]\n"
        "-> energy [1,1], forces [%d,3]\n\n";
    int n = SMALL, cols = 128 * (m->lmax + 1) * (m->lmax + 1);
    eqnn_ctx *c = eqnn_make(o);
    model one = *m;
    atoms a;
    eqnn_tensor *forces = NULL;
    if (!c) return 0;
    one.blocks = 1;
    eqnn_tensor *pos = make_atoms(c, &one, 2, &a);
    eqnn_recording(c, 0);
    run_v2(&a, pos, &forces);
    printf("EquiformerV2 %.*s: ", length, m->name);
    printf(about, m->lmax, m->mmax, m->blocks, RINGS, RINGS, ELEMENTS, n, n, n * (n - 1), n, cols,
           n);
    double weights = show_parts(c, m);
    printf("\n%.0f weights, counted on a network of one block.", weights);
    if (m->weights > 0) printf(" Published: %.0f.", m->weights);
    printf("\n\n");
    int good = !eqnn_error(c) && !(m->weights > 0 && fabs(weights - m->weights) > .5);
    if (eqnn_error(c)) fprintf(stderr, "%s\n", eqnn_error(c));
    eqnn_free(c);
    return good;
}

/* One line of the table: the whole model on a few atoms. */
static void show_v2(eqnn_table *t, eqnn_ctx *c, const model *m, int length, int nodes)
{
    atoms a;
    double R[9];
    eqnn_tensor *pos = make_atoms(c, m, nodes, &a), *f = NULL, *turned_f = NULL;
    int recording = eqnn_recording(c, 0);
    run_v2(&a, pos, &f); /* makes the weights and what is made once */
    eqnn_recording(c, recording);
    eqnn_reset(c);
    double start = eqnn_clock();
    eqnn_tensor *e = run_v2(&a, pos, &f);
    double forward = eqnn_clock() - start;
    eqnn_backward(eqnn_add(eqnn_square(e), eqnn_sum(eqnn_square(eqnn_as(f, NULL)))));
    double step = eqnn_clock() - start;
    eqnn_memory memory = eqnn_memory_use(c);
    eqnn_reset(c);
    eqnn_recording(c, 0);
    eqnn_rotation_random(c, "turn", 0, R);
    e = run_v2(&a, pos, &f);
    eqnn_tensor *turn = eqnn_from_double(c, 3, 3, R);
    eqnn_tensor *turned_e = run_v2(&a, eqnn_matmul_t(pos, turn, 0, 1), &turned_f);
    f = eqnn_matmul_t(eqnn_as(f, NULL), turn, 0, 1);
    eqnn_table_cell(t, "%.*s", length, m->name);
    eqnn_table_cell(t, "%d", nodes);
    eqnn_table_cell(t, "%zu", eqnn_parameter_size(c));
    eqnn_table_cell(t, "%.2f s", forward);
    eqnn_table_cell(t, "%.2f s", step);
    eqnn_table_cell(t, "%.0f MB", (double)memory.lasting * 1e-6);
    eqnn_table_cell(t, "%.0f MB", (double)memory.step_peak * 1e-6);
    eqnn_table_number(t, "%.1e", largest_difference(turned_e, e));
    eqnn_table_number(t, "%.1e", largest_difference(eqnn_as(turned_f, NULL), f));
}

/* All models of a list; 0 when one failed. */
static int run_models(const eqnn_opts *o, eqnn_ctx *first, const char *list, int nodes, int dry)
{
    eqnn_table *t = eqnn_table_make(first, "EquiformerV2|atoms|weights|forward|and backward|"
                                           "lasting memory|a step's|energy turned|forces turned");
    const char *word;
    int good = 1;
    for (int length; (length = eqnn_next_word(&list, &word)) > 0;) {
        model m;
        if (!find_model(word, length, &m)) {
            fprintf(stderr, "equiformer: option --v2: there is no '%.*s'; there are 31M, 83M, "
                            "153M, and others like L4M2x8: degrees, orders, blocks\n",
                    length, word);
            good = 0;
            continue;
        }
        good &= describe(o, &m, length);
        eqnn_ctx *c = dry ? NULL : eqnn_make(o);
        if (c) show_v2(t, c, &m, length, nodes);
        if (c && eqnn_error(c)) good = 0, fprintf(stderr, "%s\n", eqnn_error(c));
        eqnn_free(c);
    }
    if (!dry) eqnn_table_print(t, stdout);
    eqnn_table_free(t);
    return good;
}

static const eqnn_option options[] = {
    { "example", "0", "1 to 4: that program of the README; 0: all; none with --v2 alone" },
    { "nodes", "0", "nodes of an example; 0: as the README has it, 12 for --v2" },
    { "v2", "", "31M, 83M, 153M, L8M2x12, L6M6x12, any L2M1x3 (degrees, orders, blocks), a list" },
    { "dry-run", "off", "of --v2 only what it is made of" },
    { "seed", "0", "of weights and positions" },
    { "epochs", NULL, NULL }, /* nothing is trained here */
    { "data", NULL, NULL },
    { "out", NULL, NULL },
    { "resume", NULL, NULL },
    { NULL, NULL, NULL }
};

/* The programs of the README, all or one; 0 when one failed. */
static int run_programs(const eqnn_opts *o, eqnn_ctx *first, int only, int nodes)
{
    eqnn_table *t = eqnn_table_make(first, "program|scalars|vectors|weights|forward|and backward|"
                                           "memory|rotation error");
    int good = 1;
    for (int k = 0; k < PROGRAMS; k++) {
        if (only && k != only - 1) continue;
        eqnn_ctx *c = eqnn_make(o); /* one network, one context */
        if (c) show(t, c, k, nodes);
        const char *error = c ? eqnn_error(c) : "no memory";
        printf("%d  %s: %d nodes%s\n", k + 1, programs[k].about,
               nodes > 0 ? nodes : programs[k].nodes, programs[k].batch > 1 ? " each" : "");
        if (error) fprintf(stderr, "program %d: %s\n", k + 1, error);
        good &= error == NULL;
        eqnn_free(c);
    }
    printf("\n");
    eqnn_table_print(t, stdout);
    printf("\n");
    eqnn_table_free(t);
    return good;
}

int main(int argc, char **argv)
{
    eqnn_args a;
    int good = 1;
    eqnn_args_read(&a, argc, argv, "the programs of equiformer-pytorch's README, and "
                                   "EquiformerV2", options);
    int only = eqnn_args_int(&a, "example", 0, PROGRAMS);
    int nodes = eqnn_args_int(&a, "nodes", 0, 100000);
    const char *v2 = eqnn_args_text(&a, "v2");
    int dry = eqnn_args_on(&a, "dry-run");
    eqnn_opts o = eqnn_args_context(&a);
    if (dry && !*v2) v2 = "31M,83M,153M";
    eqnn_ctx *first = eqnn_program_start(&a, &o);
    if (first && (!*v2 || eqnn_args_given(&a, "example")))
        good &= run_programs(&o, first, only, nodes);
    if (first && *v2) good &= run_models(&o, first, v2, nodes > 0 ? nodes : SMALL, dry);
    return eqnn_program_end(&a, first) || !good;
}
