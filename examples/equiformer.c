/* equiformer.c - the four programs of equiformer-pytorch's README, with the same settings

   cc -O2 -I. examples/equiformer.c -lm -o equiformer && ./equiformer   (--help lists the options)

   YOU WILL SEE   for each program the sizes of its outputs, its number of weights (which is the
                  original's), seconds of a forward pass and of a step, memory, and how well it
                  commutes with rotations. TEST: --nodes 12
   IT TEACHES     tokens, features, kinds of edges, bonds and neighbours go into one network; a
                  scalar and a vector for every node come out; a trunk of 48 blocks takes the memory
                  of one when it is reversible.

   The original: Phil Wang, equiformer-pytorch 0.5.4. The network: Liao and Smidt 2022,
   arXiv:2206.11990. */
#define EQNN_IMPLEMENTATION
#include "eqnn.h"
#include "eqnn_data.h"
#include <math.h>
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
    { "tokens of 128 nodes, everybody hears everybody", 1, 128, 0, 24, 0, 0,
      { .dim = "4,4,2", .dim_head = "4,4,4", .heads = "2,2,2", .degrees = 3, .depth = 4,
        .reduce = 1, .mlp = 1 } },
    { "the same, reversible and 48 blocks deep", 1, 128, 0, 24, 0, 0,
      { .dim = "4,4,2", .dim_head = "4,4,4", .heads = "2,2,2", .degrees = 3, .depth = 48,
        .reversible = 1 } },
    { "two examples of 32 nodes, edges of four kinds", 2, 32, 0, 28, 4, 0,
      { .dim = "64", .edge_dim = 16, .depth = 2, .degrees = 3, .reduce = 1 } },
    { "a chain of 128 nodes, bonded up to second neighbours", 1, 128, 32, 0, 0, 2,
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

/* Rotations only: the network tells left from right. */
static double rotation_error(eqnn_tensor *const *x, int n, inputs *in)
{
    eqnn_ctx *c = eqnn_context(x[0]);
    eqnn_tensor *y = run_network(x, n, in), *z[2] = { NULL, n > 1 ? x[1] : NULL };
    double R[9], worst = 0, size = 0;
    eqnn_rotation_random(c, "turn", 0, R);
    z[0] = eqnn_rotate(x[0], R);
    eqnn_tensor *turned = eqnn_rotate(y, R), *there = run_network(z, n, in);
    for (int i = 0; i < eqnn_rows(y); i++)
        for (int k = 0; k < eqnn_cols(y); k++) {
            worst = fmax(worst, fabs(eqnn_at(there, i, k) - eqnn_at(turned, i, k)));
            size = fmax(size, fabs(eqnn_at(turned, i, k)));
        }
    return worst / size;
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
    run_network(x, n, &in); /* makes the weights and what is made once */
    eqnn_reset(c);
    double start = eqnn_clock();
    eqnn_tensor *y = run_network(x, n, &in);
    double forward = eqnn_clock() - start;
    int rows = eqnn_rows(y), scalars = eqnn_irreps_count(eqnn_label_of(y), 0, 1);
    int vectors = eqnn_irreps_count(eqnn_label_of(y), 1, -1);
    eqnn_backward(eqnn_sum(eqnn_extract_irrep(y, 0, 1)));
    double step = eqnn_clock() - start;
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

static const eqnn_option options[] = {
    { "example", "0", "1 to 4: that program of the README; 0: all" },
    { "nodes", "0", "nodes of an example; 0: as the README has it" },
    { "seed", "0", "of weights and positions" },
    { NULL, NULL, NULL }
};

int main(int argc, char **argv)
{
    eqnn_args a;
    int failed = 0;
    int go = eqnn_args_read(&a, argc, argv, "the programs of equiformer-pytorch's README", options);
    if (go == 0) return 0;
    int only = eqnn_args_int(&a, "example", 0, PROGRAMS);
    int nodes = eqnn_args_int(&a, "nodes", 0, 100000);
    eqnn_opts o = { .seed = eqnn_args_seed(&a), .threads = eqnn_args_int(&a, "threads", 0, 1024) };
    if (a.error[0]) return fprintf(stderr, "%s\n", a.error), 2;
    eqnn_ctx *first = eqnn_make(&o);
    eqnn_table *t = first ? eqnn_table_make(first, "program|scalars|vectors|weights|forward|"
                                                   "and backward|memory|rotation error") : NULL;
    for (int k = 0; t && k < PROGRAMS; k++) {
        if (only && k != only - 1) continue;
        eqnn_ctx *c = eqnn_make(&o); /* one network, one context */
        if (c) show(t, c, k, nodes);
        const char *error = c ? eqnn_error(c) : "no memory";
        printf("%d  %s\n", k + 1, programs[k].about);
        if (error) fprintf(stderr, "program %d: %s\n", k + 1, error);
        failed |= error != NULL;
        eqnn_free(c);
    }
    if (t) {
        printf("\n");
        eqnn_table_print(t, stdout);
    }
    eqnn_table_free(t);
    eqnn_free(first);
    return failed || !t;
}
