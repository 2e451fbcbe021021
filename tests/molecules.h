/* molecules.h - what the tests of EquiformerV2 and eSCN share: a network of one of the two, which
   NETWORK and NETWORK_OPTS name, two small molecules, and what holds for both networks */
#ifndef MOLECULES_H
#define MOLECULES_H
#include "test.h"

enum { ATOMS = 7, EDGES = 18 };

typedef struct model {
    eqnn_ints *species;
    const eqnn_graph *g;
    NETWORK_OPTS o;
    const char *name;
} model;

static eqnn_tensor *energy_of(eqnn_tensor *const *x, int n, void *user)
{
    const model *m = (const model *)user;
    (void)n;
    return NETWORK(m->species, x[0], m->g, m->name, &m->o);
}

static const eqnn_graph *graph_of(eqnn_ctx *c, int atoms, int edges, const int *source,
                                  const int *target, const int *example)
{
    eqnn_graph_opts o;
    memset(&o, 0, sizeof o);
    o.targets = atoms;
    o.example = example;
    o.examples = atoms ? 0 : 1;
    return eqnn_graph_make(c, edges, source, target, &o);
}

/* Two molecules, of 4 and 3 atoms, all edges within each; species of a range of 5. */
static model molecules(eqnn_ctx *c, NETWORK_OPTS o, const char *name)
{
    static const int source[EDGES] = { 0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 5, 5, 6, 6 };
    static const int target[EDGES] = { 1, 2, 3, 0, 2, 3, 0, 1, 3, 0, 1, 2, 5, 6, 4, 6, 4, 5 };
    static const int example[ATOMS] = { 0, 0, 0, 0, 1, 1, 1 };
    static const int kind[ATOMS] = { 0, 3, 1, 1, 2, 0, 3 };
    model m;
    m.g = graph_of(c, ATOMS, EDGES, source, target, example);
    m.species = eqnn_ints_make(c, ATOMS, kind, 5, 0);
    m.o = o;
    m.name = name;
    return m;
}

static eqnn_tensor *positions(eqnn_ctx *c)
{
    return eqnn_scale(test_normal(c, ATOMS, 3), 1.2);
}

/* max |a - b| / max |b| */
static double relative(eqnn_tensor *a, eqnn_tensor *b)
{
    double worst = 0, size = 0;
    for (int i = 0; i < eqnn_rows(b); i++)
        for (int k = 0; k < eqnn_cols(b); k++) {
            worst = fmax(worst, fabs(eqnn_at(a, i, k) - eqnn_at(b, i, k)));
            size = fmax(size, fabs(eqnn_at(b, i, k)));
        }
    return a && b && size > 0 ? worst / size : INFINITY;
}

static eqnn_tensor *turned(eqnn_tensor *x, const double R[9])
{
    return eqnn_matmul_t(x, eqnn_from_double(eqnn_context(x), 3, 3, R), 0, 1);
}

/* Largest relative change of energies and direct forces when the world turns and moves. */
static double symmetry_error(model *m, eqnn_tensor *pos)
{
    eqnn_ctx *c = eqnn_context(pos);
    double worst = 0;
    for (int k = 0; k < 3; k++) {
        double R[9];
        eqnn_tensor *f = NULL, *f2 = NULL;
        eqnn_rotation_random(c, eqnn_format(c, "R%d", k), 0, R);
        m->o.forces = &f;
        eqnn_tensor *e = energy_of(&pos, 1, m), *moved = eqnn_shift(turned(pos, R), 0.25);
        m->o.forces = &f2;
        eqnn_tensor *e2 = energy_of(&moved, 1, m);
        worst = fmax(worst, relative(e2, e));
        worst = fmax(worst, relative(eqnn_as(f2, NULL), turned(eqnn_as(f, NULL), R)));
    }
    m->o.forces = NULL;
    test_note("symmetry error %.1e", worst);
    return worst;
}

/* Frames of the edges that roll at random about them: rows across, along, and across both. */
static void rolls(eqnn_tensor *pos, const eqnn_graph *g, double R[9 * EDGES])
{
    eqnn_tensor *r = eqnn_edge_vectors(pos, g), *t = test_normal(eqnn_context(pos), EDGES, 3);
    for (int e = 0; e < EDGES; e++) {
        double *a = R + 9 * e, *u = a + 3, *b = a + 6, dot = 0, length[2] = { 0, 0 };
        for (int k = 0; k < 3; k++) length[0] += pow(u[k] = eqnn_at(r, e, k), 2);
        for (int k = 0; k < 3; k++) dot += (u[k] /= sqrt(length[0])) * eqnn_at(t, e, k);
        for (int k = 0; k < 3; k++) length[1] += pow(a[k] = eqnn_at(t, e, k) - dot * u[k], 2);
        for (int k = 0; k < 3; k++) a[k] /= sqrt(length[1]);
        for (int k = 0; k < 3; k++)
            b[k] = a[(k + 1) % 3] * u[(k + 2) % 3] - a[(k + 2) % 3] * u[(k + 1) % 3];
    }
}

/* Rolls change nothing but what a grid is too coarse for. */
static void check_rolls(model m, eqnn_tensor *pos, double eps)
{
    double R[9 * EDGES];
    eqnn_tensor *e = energy_of(&pos, 1, &m);
    rolls(pos, m.g, R);
    m.o.rotations = R;
    CHECK(relative(energy_of(&pos, 1, &m), e) < eps);
    m.o.beta = 6, m.o.points = 5;
    eqnn_tensor *coarse = energy_of(&pos, 1, &m);
    m.o.rotations = NULL;
    CHECK(relative(energy_of(&pos, 1, &m), coarse) > 0);
}

/* Molecules do not see each other; the order of atoms does not matter: the second one alone, its
   atoms in another order. */
static void check_apart(model m, eqnn_tensor *pos)
{
    static const int source[6] = { 0, 0, 1, 1, 2, 2 }, target[6] = { 1, 2, 0, 2, 0, 1 };
    eqnn_ctx *c = eqnn_context(pos);
    eqnn_ints *index = eqnn_ints_make(c, 3, (const int[]){ 6, 4, 5 }, ATOMS, 0);
    eqnn_tensor *f = NULL, *f1 = NULL, *some = eqnn_take(pos, index);
    model one = m;
    one.g = graph_of(c, 3, 6, source, target, NULL);
    one.species = eqnn_ints_make(c, 3, (const int[]){ 3, 2, 0 }, 5, 0);
    m.o.forces = &f, one.o.forces = &f1;
    eqnn_tensor *e = energy_of(&pos, 1, &m), *e1 = energy_of(&some, 1, &one);
    CHECK_NEAR(eqnn_value(e1), eqnn_at(e, 1, 0), test_eps(1e-13, 1e-5));
    CHECK_SAME(f1, eqnn_take(f, index), test_eps(1e-13, 1e-5));
    CHECK_OK(c);
}

/* Layers that are computed again; features that go in and come out, and numbers of edges. weight:
   the name of one that all of these move. */
static void check_more_inputs(model m, eqnn_tensor *pos, const char *weight, double eps)
{
    eqnn_ctx *c = eqnn_context(pos);
    eqnn_tensor *features = NULL, *y[2], *force[2], *second[2], *dw[2];
    size_t nodes[2];
    m.o.x = eqnn_as(test_normal(c, ATOMS, 5), eqnn_irreps_make(c, "2x0e+1x1o"));
    m.o.edges = test_normal(c, EDGES, 2);
    m.o.features = &features;
    m.o.envelope = 8;
    for (int k = 0; k < 2; k++) {
        size_t before = eqnn_memory_use(c).tape_nodes;
        m.o.checkpoint = k;
        y[k] = energy_of(&pos, 1, &m);
        nodes[k] = eqnn_memory_use(c).tape_nodes - before;
        force[k] = eqnn_grad(eqnn_sum(y[k]), pos);
        eqnn_tensor *loss = eqnn_sum(eqnn_square(force[k]));
        second[k] = eqnn_grad(loss, pos);
        eqnn_zero_gradients(c);
        eqnn_backward(loss);
        dw[k] = eqnn_gradient(eqnn_parameter(c, eqnn_format(c, "%s.%s", m.name, weight)));
    }
    CHECK(relative(y[1], y[0]) <= eps && relative(force[1], force[0]) <= eps);
    CHECK(relative(second[1], second[0]) <= eps && relative(dw[1], dw[0]) <= eps);
    CHECK(nodes[1] < nodes[0] / 2); /* blocks are not remembered */
    CHECK(features && eqnn_rows(features) == ATOMS && eqnn_cols(features) == 4 * 9);
    for (int i = 0; i < eqnn_parameter_count(c); i++)
        CHECK(test_finite(eqnn_gradient(eqnn_parameter_at(c, i))));
    m.o.each_node = 1; /* both networks add up to their energies with factor 1 here */
    eqnn_tensor *rows = energy_of(&pos, 1, &m);
    CHECK(eqnn_rows(rows) == ATOMS);
    CHECK(relative(eqnn_pool_sum(rows, m.g), y[1]) <= eps);
    m.o.edges = eqnn_scale(m.o.edges, -1); /* and what edges say is heard */
    CHECK(relative(energy_of(&pos, 1, &m), rows) > 0);
    CHECK(eqnn_parameter(c, eqnn_format(c, "%s.x_embed.weight", m.name)) != NULL);
    m.o.x = test_normal(c, 1, 1);
    CHECK(!energy_of(&pos, 1, &m) && !features);
    CHECK_ERROR(c, ".x has 1 rows");
}

/* Rotations that are given are read in the call only, with layers that are computed again too. */
static void check_given_frames(model m, eqnn_tensor *pos, const char *weight, double eps)
{
    eqnn_ctx *c = eqnn_context(pos);
    double R[9 * EDGES];
    eqnn_tensor *dw[2];
    m.o.rotations = R;
    for (int k = 0; k < 2; k++) {
        for (int e = 0; e < EDGES; e++)
            eqnn_rotation_random(c, eqnn_format(c, "given%d", e), 0, R + 9 * e);
        m.o.checkpoint = k;
        eqnn_tensor *loss = eqnn_sum(eqnn_square(energy_of(&pos, 1, &m)));
        memset(R, 0, sizeof R);
        eqnn_zero_gradients(c);
        CHECK(eqnn_backward(loss));
        dw[k] = eqnn_gradient(eqnn_parameter(c, eqnn_format(c, "%s.%s", m.name, weight)));
    }
    CHECK(relative(dw[1], dw[0]) <= eps);
    CHECK_OK(c);
}

/* How much an energy changes when an atom comes within 3 of another. */
static double jump(eqnn_ctx *c, const NETWORK_OPTS *o, const char *name)
{
    double E[2], pos[9] = { 0, 0, 0, 0, 1.1, 0, 0, 0, 0 };
    eqnn_ints *kind = eqnn_ints_make(c, 3, (const int[]){ 0, 1, 2 }, 5, 0);
    for (int k = 0; k < 2; k++) {
        pos[6] = 3 + (k ? 1e-6 : -1e-6);
        eqnn_tensor *x = eqnn_from_double(c, 3, 3, pos);
        E[k] = eqnn_value(NETWORK(kind, x, eqnn_radius_graph(x, 3, NULL), name, o));
    }
    return fabs(E[1] - E[0]) / fabs(E[0]);
}

/* Edges beyond the envelope, 3, count for nothing. */
static void check_beyond(eqnn_ctx *c, const NETWORK_OPTS *o, const char *name)
{
    double E[2];
    eqnn_tensor *x = eqnn_scale(test_normal(c, 9, 3), 2);
    eqnn_ints *kind = eqnn_ints_make(c, 9, (const int[]){ 0, 1, 2, 3, 4, 0, 1, 2, 3 }, 5, 0);
    for (int k = 0; k < 2; k++)
        E[k] = eqnn_value(NETWORK(kind, x, eqnn_radius_graph(x, k ? 9 : 3, NULL), name, o));
    CHECK_NEAR(E[1], E[0], test_eps(1e-13, 1e-5) * fabs(E[0]));
    CHECK_OK(c);
}

/* Coincident atoms and an edge along -y */
static eqnn_tensor *awkward_positions(eqnn_ctx *c)
{
    static const double x[3 * ATOMS] = { 0, 0, 0,  0, 1, 0,  0, 1, 0,  0, 0, 2,
                                         1, 1, 1,  1, 1, 1,  1, -1, 1 };
    return eqnn_from_double(c, ATOMS, 3, x);
}

/* There: energies, forces and their slopes are finite. Without edges: no direction, no force up to
   eps. Without atoms: the energy 0. Without species for the atoms: an error. */
static void check_awkward(model m, eqnn_tensor *pos, double eps)
{
    eqnn_ctx *c = eqnn_context(pos);
    eqnn_tensor *f = NULL, *none = eqnn_zeros(c, 0, 3);
    model alone = m;
    m.o.forces = alone.o.forces = &f;
    eqnn_tensor *e = energy_of(&pos, 1, &m), *g = eqnn_grad(eqnn_sum(e), pos);
    CHECK(test_finite(e) && test_finite(g) && test_finite(f));
    CHECK(test_finite(eqnn_grad(eqnn_sum(eqnn_square(g)), pos)));
    alone.g = graph_of(c, ATOMS, 0, NULL, NULL, NULL);
    e = energy_of(&pos, 1, &alone);
    CHECK(test_finite(e) && test_finite(eqnn_grad(e, pos)));
    CHECK_SAME(f, eqnn_zeros(c, ATOMS, 3), eps);
    alone.g = graph_of(c, 0, 0, NULL, NULL, NULL);
    alone.species = eqnn_ints_make(c, 0, NULL, 5, 0);
    CHECK_SAME(energy_of(&none, 1, &alone), eqnn_zeros(c, 1, 1), 0);
    CHECK_OK(c);
    m.species = alone.species;
    CHECK(!energy_of(&pos, 1, &m));
    CHECK_ERROR(c, "0 species");
}

/* After the first steps nothing new is kept: with the models 0..count-1 that make gives. */
static void check_steady(model (*make)(eqnn_ctx *c, int which), int count)
{
    eqnn_ctx *c = test_context();
    size_t lasting = 0;
    for (int step = 0; step < 4; step++) {
        for (int k = 0; k < count; k++) {
            model m = make(c, k);
            eqnn_tensor *pos = test_normal(c, ATOMS, 3), *f = NULL;
            m.o.forces = &f;
            eqnn_tensor *e = energy_of(&pos, 1, &m), *g = eqnn_grad(eqnn_sum(e), pos);
            eqnn_backward(eqnn_sum(eqnn_square(eqnn_add(eqnn_as(f, NULL), g))));
            eqnn_zero_gradients(c);
            eqnn_reset(c);
        }
        if (step == 1) lasting = eqnn_memory_use(c).lasting;
    }
    CHECK(eqnn_memory_use(c).lasting == lasting);
    CHECK_OK(c);
}

/* How many weights a network has for 90 species, with direct forces. */
static double network_size(NETWORK_OPTS o)
{
    static const int kind[2] = { 0, 1 };
    static const double x[6] = { 0, 0, 0, 1, 2, 3 };
    eqnn_opts co = test_opts();
    eqnn_ctx *c = eqnn_make(&co);
    eqnn_tensor *f = NULL;
    o.forces = &f;
    eqnn_recording(c, 0);
    NETWORK(eqnn_ints_make(c, 2, kind, 90, 0), eqnn_from_double(c, 2, 3, x),
            graph_of(c, 2, 1, kind, kind + 1, NULL), "", &o);
    double size = eqnn_error(c) ? NAN : (double)eqnn_parameter_size(c);
    eqnn_free(c);
    return size;
}

#endif
