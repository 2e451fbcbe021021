/* equiformer_v1.c - tests of section 13: the official Equiformer, its norm and radial functions

   -v prints the equivariance errors. The numbers of the reference implementation are in
   golden.c. */
#include "test.h"

static eqnn_tensor *labelled(eqnn_tensor *x, const char *irreps)
{
    return eqnn_as(x, eqnn_irreps_make(eqnn_context(x), irreps));
}

/* --- small networks as functions of positions --- */

static const eqnn_equiformer_v1_opts small = {
    .node = "6x0e+4x1e+2x2e", .head = "3x0e+2x1e+1x2e", .feature = "7x0e", .layers = 2, .heads = 2,
    .radius = 3, .functions = 5, .neurons = 6, .neighbours = 4, .nodes = 5
};
static const eqnn_equiformer_v1_opts small_e3 = {
    .node = "6x0e+2x0o+3x1e+3x1o+2x2e+1x2o", .head = "3x0e+1x0o+1x1e+2x1o+1x2e",
    .feature = "7x0e", .layers = 2, .heads = 2, .radius = 3, .functions = 5, .neurons = 6,
    .neighbours = 4, .nodes = 5
};

typedef struct model {
    eqnn_equiformer_v1_opts o;
    double radius;       /* of the graph; 0: the network's                       */
    const int *example, *species;
    int examples;
    int forces;          /* the result: forces instead of energies               */
    const int (*edge)[2]; /* these edges instead of all within the radius        */
    int edges;
} model;

static eqnn_tensor *run(eqnn_tensor *const *x, int n, void *user)
{
    const model *m = (const model *)user;
    eqnn_ctx *c = eqnn_context(x[0]);
    int rows = eqnn_rows(x[0]), z[64], from[64], to[64];
    eqnn_graph_opts o = { .example = m->example, .examples = m->examples };
    const eqnn_graph *g;
    (void)n;
    if (m->edge) {
        o.sources = o.targets = rows;
        for (int e = 0; e < m->edges; e++) from[e] = m->edge[e][0], to[e] = m->edge[e][1];
        g = eqnn_graph_make(c, m->edges, from, to, &o);
    } else {
        g = eqnn_radius_graph(x[0], m->radius > 0 ? m->radius : m->o.radius, &o);
    }
    for (int i = 0; i < rows; i++) z[i] = m->species ? m->species[i] : i % 3;
    eqnn_tensor *y = eqnn_equiformer_v1(eqnn_ints_make(c, rows, z, 3, 0), x[0], g, "net", &m->o);
    if (!m->forces) return y;
    return eqnn_as(eqnn_neg(eqnn_grad(eqnn_sum(y), x[0])), eqnn_label_of(x[0]));
}

static model model_of(eqnn_equiformer_v1_opts o, eqnn_messages messages)
{
    model m = { .o = o };
    m.o.messages = messages;
    return m;
}

/* The label 1e says that reflections do not reflect, which is what SE(3) means. */
static eqnn_tensor *atoms(eqnn_ctx *c, int n, int reflect)
{
    return labelled(eqnn_scale(test_normal(c, n, 3), 1.5), reflect ? "1x1o" : "1x1e");
}

/* Biases begin at 0, where a wrong one would not be seen. */
static void stir(eqnn_ctx *c)
{
    for (int i = 0; i < eqnn_parameter_count(c); i++) {
        eqnn_tensor *w = eqnn_parameter_at(c, i);
        double v[64];
        if (!strstr(eqnn_parameter_name(c, i), "bias") || eqnn_cols(w) > 64) continue;
        for (int k = 0; k < eqnn_cols(w); k++) v[k] = 0.3 * sin(3 * k + i);
        eqnn_set(w, v);
    }
}

/* --- symmetries --- */

static void check_symmetric(model m, int reflect, const char *what)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *x = atoms(c, 8, reflect), *moved;
    double t[3] = { 0.5, -1.25, 2 }, error[3];
    run(&x, 1, &m);
    stir(c);
    error[0] = eqnn_check_equivariance(run, &x, 1, &m, 3, NULL);
    moved = eqnn_add(x, eqnn_as(eqnn_from_double(c, 1, 3, t), eqnn_label_of(x)));
    m.forces = 1;
    error[1] = eqnn_check_equivariance(run, &x, 1, &m, 3, NULL);
    error[2] = test_difference(run(&moved, 1, &m), run(&x, 1, &m));
    test_note("%s: energy %.1e, forces %.1e, translation %.1e", what, error[0], error[1], error[2]);
    /* Two atoms that happen to be near each other magnify the rounding of their forces. */
    for (int k = 0; k < 3; k++) CHECK_NEAR(error[k], 0, test_eps(1e-13, k == 1 ? 1e-4 : 1e-5));
}

TEST(equiformer_v1_is_equivariant)
{
    check_symmetric(model_of(small, EQNN_MESSAGES_NONLINEAR), 0, "SE(3)");
    check_symmetric(model_of(small, EQNN_MESSAGES_LINEAR), 0, "SE(3), linear messages");
    check_symmetric(model_of(small, EQNN_MESSAGES_DOT), 0, "SE(3), dot products");
    check_symmetric(model_of(small_e3, EQNN_MESSAGES_NONLINEAR), 1, "E(3)");
    check_symmetric(model_of(small_e3, EQNN_MESSAGES_LINEAR), 1, "E(3), linear messages");
    check_symmetric(model_of(small_e3, EQNN_MESSAGES_DOT), 1, "E(3), dot products");
}

/* A mirror image has another energy when labels are e only. */
TEST(equiformer_v1_sees_handedness)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *x = atoms(c, 8, 1);
    model m = model_of(small, EQNN_MESSAGES_NONLINEAR);
    CHECK(eqnn_check_equivariance(run, &x, 1, &m, 4, NULL) > 1e-4);
}

TEST(equiformer_v1_does_not_see_the_order_of_atoms)
{
    eqnn_ctx *c = test_context();
    const int order[6] = { 3, 1, 5, 0, 4, 2 }, back[6] = { 0, 1, 2, 0, 1, 2 };
    int species[6];
    eqnn_tensor *x = atoms(c, 6, 0), *turned = eqnn_take(x, eqnn_ints_make(c, 6, order, 6, 0));
    model m = model_of(small, EQNN_MESSAGES_NONLINEAR), other = m;
    for (int i = 0; i < 6; i++) species[i] = back[order[i]];
    other.species = species;
    CHECK_NEAR(test_difference(run(&turned, 1, &other), run(&x, 1, &m)), 0, test_eps(1e-13, 1e-5));
}

/* --- batches, isolated atoms, awkward positions --- */

/* Energies of molecules do not depend on what else is in the batch. */
TEST(equiformer_v1_keeps_examples_apart)
{
    for (int kind = 0; kind < 3; kind++) {
        eqnn_ctx *c = test_context();
        const int example[9] = { 0, 0, 0, 0, 2, 2, 2, 2, 2 };
        model m = model_of(small, (eqnn_messages)kind), one = m;
        eqnn_tensor *x = atoms(c, 9, 0), *a = eqnn_slice_rows(x, 0, 4),
                    *b = eqnn_slice_rows(x, 4, 5);
        const int species[9] = { 0, 1, 2, 0, 0, 1, 2, 0, 1 };
        m.example = example;
        m.examples = 3;
        m.species = species;
        eqnn_tensor *both = run(&x, 1, &m);
        stir(c);
        both = run(&x, 1, &m);
        double eps = test_eps(1e-13, 1e-5);
        CHECK(eqnn_rows(both) == 3);
        CHECK_NEAR(eqnn_at(both, 0, 0), eqnn_value(run(&a, 1, &one)), eps);
        CHECK_NEAR(eqnn_at(both, 2, 0), eqnn_value(run(&b, 1, &one)), eps);
        CHECK(eqnn_at(both, 1, 0) == 0);
    }
}

/* Atoms alone, no atoms at all, and no edges: energies and forces are there. */
TEST(equiformer_v1_of_few_atoms)
{
    for (int kind = 0; kind < 3; kind++) {
        eqnn_ctx *c = test_context();
        model m = model_of(small, (eqnn_messages)kind);
        const double far[6] = { 0, 0, 0, 100, 0, 0 };
        eqnn_tensor *one = eqnn_zeros(c, 1, 3), *none = eqnn_zeros(c, 0, 3);
        eqnn_tensor *two = eqnn_from_double(c, 2, 3, far);
        double e = eqnn_value(run(&one, 1, &m));
        int same[2] = { 0, 0 };
        CHECK(isfinite(e));
        m.species = same;
        CHECK_NEAR(eqnn_value(run(&two, 1, &m)), 2 * e, test_eps(1e-13, 1e-5));
        m.examples = 1;
        CHECK(eqnn_value(run(&none, 1, &m)) == 0);
        m.forces = 1;
        CHECK(eqnn_rows(run(&none, 1, &m)) == 0);
        CHECK(test_finite(run(&two, 1, &m)) && eqnn_at(run(&one, 1, &m), 0, 0) == 0);
        CHECK_OK(c);
    }
}

/* Two atoms in one place have no direction: what turns is 0, gradients are finite, and nothing
   depends on how the rest is turned. */
TEST(equiformer_v1_of_coincident_atoms)
{
    for (int kind = 0; kind < 3; kind++) {
        eqnn_ctx *c = test_context();
        const int twice[5] = { 0, 1, 2, 1, 3 };
        model m = model_of(small, (eqnn_messages)kind);
        eqnn_tensor *x = eqnn_take(atoms(c, 4, 0), eqnn_ints_make(c, 5, twice, 4, 0));
        double eps = test_eps(1e-12, 1e-5);
        CHECK_NEAR(eqnn_check_equivariance(run, &x, 1, &m, 2, NULL), 0, eps);
        m.forces = 1;
        CHECK(test_finite(run(&x, 1, &m)));
        CHECK_NEAR(eqnn_check_equivariance(run, &x, 1, &m, 2, NULL), 0, eps);
        CHECK(test_finite(eqnn_grad(eqnn_sum(eqnn_square(eqnn_as(run(&x, 1, &m), NULL))), x)));
    }
}

/* --- derivatives --- */

static const int ring[8][2] = { { 0, 1 }, { 1, 0 }, { 1, 2 }, { 2, 1 }, { 2, 3 }, { 3, 2 },
                                { 3, 0 }, { 0, 2 } };

TEST(equiformer_v1_derivatives)
{
    for (int kind = 0; kind < 5; kind++) {
        eqnn_ctx *c = test_context();
        model m = model_of(small, (eqnn_messages)(kind % 3));
        m.o.node = "3x0e+2x1e";
        m.o.head = "2x0e+1x1e";
        m.o.feature = "3x0e";
        m.o.layers = 1;
        m.o.functions = 3;
        m.o.neurons = 3;
        if (kind == 3) m.o.basis = EQNN_EXP_NORMAL, m.o.rescale_degree = 1;
        if (kind == 4) m.o.basis = EQNN_BESSEL, m.o.each_node = 1, m.o.radius = 9;
        m.edge = ring;
        m.edges = 8;
        eqnn_tensor *x = atoms(c, 4, 0);
        run(&x, 1, &m);
        stir(c);
        CHECK_DERIVATIVES_OF(run, &x, 1, &m, 2);
    }
}

/* d energy / d weight against a difference, for one number of every weight */
TEST(equiformer_v1_gradients_of_weights)
{
    if (sizeof(eqnn_real) != 8) return;
    for (int kind = 0; kind < 3; kind++) {
        eqnn_ctx *c = test_context();
        model m = model_of(small, (eqnn_messages)kind);
        eqnn_tensor *x = atoms(c, 5, 0);
        run(&x, 1, &m);
        stir(c);
        eqnn_zero_gradients(c);
        eqnn_backward(eqnn_sum(run(&x, 1, &m)));
        for (int i = 0; i < eqnn_parameter_count(c); i++) {
            eqnn_tensor *w = eqnn_parameter_at(c, i), *g = eqnn_gradient(w);
            int n = eqnn_rows(w) * eqnn_cols(w), k = (7 * i + 3) % n, cols = eqnn_cols(w);
            double *v = (double *)malloc((size_t)n * sizeof *v), e[2], h = 1e-5;
            for (int j = 0; j < n; j++) v[j] = eqnn_at(w, j / cols, j % cols);
            for (int s = 0; s < 2; s++) {
                v[k] += s ? -2 * h : h;
                eqnn_set(w, v);
                e[s] = eqnn_value(eqnn_sum(run(&x, 1, &m)));
            }
            v[k] += h;
            eqnn_set(w, v);
            free(v);
            CHECK_NEAR(eqnn_at(g, k / cols, k % cols), (e[0] - e[1]) / (2 * h), 1e-7);
        }
    }
}

/* Blocks that are computed again give the same numbers, with the same things dropped. */
TEST(equiformer_v1_computes_blocks_again)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *x = atoms(c, 6, 0), *y[2], *force[2], *second[2], *dw[2];
    size_t nodes[2];
    for (int k = 0; k < 2; k++) {
        size_t before = eqnn_memory_use(c).tape_nodes;
        model m = model_of(small, EQNN_MESSAGES_NONLINEAR);
        m.o.alpha_drop = m.o.drop = m.o.drop_path = 0.3;
        m.o.envelope = 4; /* beyond the graph's 3 */
        m.o.checkpoint = k;
        eqnn_training(c, 1);
        y[k] = run(&x, 1, &m);
        nodes[k] = eqnn_memory_use(c).tape_nodes - before;
        force[k] = eqnn_grad(eqnn_sum(y[k]), x);
        second[k] = eqnn_grad(eqnn_sum(eqnn_square(eqnn_as(force[k], NULL))), x);
        eqnn_zero_gradients(c);
        eqnn_backward(eqnn_sum(eqnn_square(eqnn_as(force[k], NULL))));
        dw[k] = eqnn_gradient(eqnn_parameter(c, "net.blocks.0.ga.sep_act.dtp_rad.net.6.weight"));
    }
    CHECK(nodes[1] < nodes[0] / 2);
    double eps = test_eps(1e-12, 1e-4);
    CHECK_NEAR(test_difference(y[1], y[0]), 0, eps);
    CHECK_NEAR(test_difference(force[1], force[0]), 0, eps);
    CHECK_NEAR(test_difference(second[1], second[0]), 0, eps);
    CHECK_NEAR(test_difference(dw[1], dw[0]), 0, eps);
    CHECK(test_difference(eqnn_scale(dw[1], 0), dw[0]) > 0);
}

/* An atom that comes into the radius of one, or of all: what happens to the energy then. */
static double jump(eqnn_ctx *c, model *m, double far)
{
    double E[2], pos[9] = { 0, 0, 0, 0, 1.1, 0, 0, 0, 0 };
    for (int k = 0; k < 2; k++) {
        pos[6] = far + (k ? 1e-6 : -1e-6);
        eqnn_tensor *x = labelled(eqnn_from_double(c, 3, 3, pos), "1x1e");
        E[k] = eqnn_value(run(&x, 1, m));
    }
    return fabs(E[1] - E[0]) / fabs(E[0]);
}

TEST(equiformer_v1_fades_edges_out)
{
    static const double at[2] = { 3, 2.79105714739 }; /* from the first atom; from the second */
    for (int messages = 0; messages < 3; messages++) {
        eqnn_ctx *c = test_context();
        model m = model_of(small, (eqnn_messages)messages);
        m.o.rescale_degree = messages == 1;
        jump(c, &m, 3);
        stir(c);
        for (int k = 0; k < 2; k++) {
            m.o.envelope = m.o.norm_floor = 0;
            double sudden = jump(c, &m, at[k]);
            m.o.envelope = 3, m.o.norm_floor = 1;
            double smooth = jump(c, &m, at[k]);
            test_note("an atom comes: %.1e; with an envelope %.1e", sudden, smooth);
            CHECK(sudden > 1e-2 && smooth < test_eps(1e-6, 1e-5)); /* it moves by 2e-6 */
        }
        eqnn_tensor *x = atoms(c, 5, 0);
        if (!messages) CHECK_DERIVATIVES_OF(run, &x, 1, &m, test_eps(1, 0) > 0 ? 2 : 1);
    }
}

/* Features that go in and come out, and numbers of edges. */
TEST(equiformer_v1_more_inputs)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *x = atoms(c, 6, 0), *features = NULL, *y[3];
    model m = model_of(small, EQNN_MESSAGES_NONLINEAR);
    const eqnn_graph *g = eqnn_radius_graph(x, 3, NULL);
    m.o.x = labelled(test_normal(c, 6, 5), "2x0e+1x1e");
    m.o.edges = test_normal(c, g->edges, 2);
    m.o.features = &features;
    y[0] = run(&x, 1, &m);
    CHECK(features && eqnn_rows(features) == 6 && eqnn_cols(features) == 7);
    m.o.x = eqnn_scale(m.o.x, 2);
    y[1] = run(&x, 1, &m);
    m.o.edges = eqnn_scale(m.o.edges, 2);
    y[2] = run(&x, 1, &m);
    CHECK(test_difference(y[1], y[0]) > 1e-4 && test_difference(y[2], y[1]) > 1e-4);
    CHECK(eqnn_parameter(c, "net.x_embed.weight") != NULL);
    m.o.edges = test_normal(c, g->edges + 1, 2);
    CHECK(!run(&x, 1, &m) && !features);
    CHECK_ERROR(c, "a row of invariant numbers for each");
    m.o.edges = test_normal(c, g->edges, 2);
    m.o.x = test_normal(c, 7, 5);
    CHECK(!run(&x, 1, &m));
    CHECK_ERROR(c, ".x has 7 rows for 6 nodes");
}

/* --- configurations --- */

static void check_parameters(const char *preset, int types, size_t count)
{
    eqnn_ctx *c = test_context();
    eqnn_equiformer_v1_opts o;
    const double pos[6] = { 0, 0, 0, 1.1, 0, 0 };
    const int z[2] = { 0, 1 };
    eqnn_tensor *x = eqnn_from_double(c, 2, 3, pos);
    CHECK(eqnn_equiformer_v1_preset(c, preset, &o));
    CHECK(o.alpha_drop == (preset[0] == 'q' ? 0.2 : 0));
    eqnn_tensor *y = eqnn_equiformer_v1(eqnn_ints_make(c, 2, z, types, 0), x,
                                        eqnn_radius_graph(x, 5, NULL), "", &o);
    CHECK(test_finite(y));
    test_note("%s: %d parameters, energy %g", preset, (int)eqnn_parameter_size(c), eqnn_value(y));
    CHECK(eqnn_parameter_size(c) == count);
    eqnn_tensor *w = eqnn_parameter(c, "blocks.5.ffn.fctp_2.tp.weight");
    CHECK(eqnn_cols(w) == 3 * 128 * 512);
    double square = eqnn_value(eqnn_mean(eqnn_square(w))) * 384;
    CHECK_NEAR(square, 1, 0.02); /* drawn with variance 1 / fan-in */
}

TEST(equiformer_v1_has_as_many_parameters)
{
    check_parameters("qm9", 5, 3531715);
    check_parameters("qm9 linear", 5, 3008515);
    check_parameters("qm9 dot", 5, 3352579);
    check_parameters("qm9 e3", 5, 3282211);
    check_parameters("md17", 64, 3496001);
    check_parameters("md17 l3", 64, 5500865);
}

/* Linear maps lead from several irreps, each with a fan-in of its own. */
TEST(equiformer_v1_weights_are_drawn_by_fan_in)
{
    eqnn_ctx *c = test_context();
    const eqnn_init_part parts[] = { { 1000, 3, 0 }, { 500, 0, 2 }, { 0, 0, 0 } };
    const eqnn_init init = { .parts = parts };
    eqnn_tensor *w = eqnn_param(c, "w", 1, 2000, &init), *part[3];
    for (int k = 0; k < 3; k++) part[k] = eqnn_slice(w, k ? 500 + 500 * k : 0, k ? 500 : 1000);
    CHECK_NEAR(eqnn_value(eqnn_mean(eqnn_square(part[0]))), 9, 0.2);
    CHECK(eqnn_value(eqnn_sum(eqnn_square(eqnn_shift(part[1], -2)))) == 0);
    CHECK_NEAR(eqnn_value(eqnn_mean(eqnn_square(part[2]))), 1, 0.2);
}

/* --- training --- */

/* What is dropped is dropped as a whole: symmetry holds in training, too; and only there. */
/* Harmonics of fewer degrees have fewer paths, and radial networks fewer weights to make. */
TEST(equiformer_v1_degrees_of_harmonics)
{
    for (int lmax = 1; lmax <= 3; lmax++) {
        eqnn_ctx *c = test_context();
        model m = model_of(small, EQNN_MESSAGES_NONLINEAR);
        eqnn_tensor *x = atoms(c, 5, 0);
        m.o.lmax = lmax == 2 ? 0 : lmax; /* 2 is node's own */
        eqnn_tensor *y = run(&x, 1, &m);
        m.o.nodes *= 4; /* the sum over nodes is divided by its root */
        CHECK_SAME(run(&x, 1, &m), eqnn_scale(y, 0.5), test_eps(1e-14, 1e-6));
        const eqnn_irreps *node = eqnn_irreps_make(c, small.node);
        const eqnn_irreps *Y = eqnn_irreps_make(c, lmax == 1   ? "1x0e+1x1e"
                                                   : lmax == 2 ? "1x0e+1x1e+1x2e"
                                                               : "1x0e+1x1e+1x2e+1x3e");
        const eqnn_product *p = eqnn_product_channelwise(c, node, Y, node, NULL);
        CHECK(eqnn_rows(eqnn_parameter(c, "net.blocks.0.ga.sep_act.dtp_rad.net.6.weight")) ==
              eqnn_product_weights(p));
    }
    eqnn_ctx *c = test_context(); /* negative: 0, a product of each copy with one number */
    model m = model_of(small, EQNN_MESSAGES_NONLINEAR);
    eqnn_tensor *x = atoms(c, 5, 0);
    m.o.lmax = -1;
    run(&x, 1, &m);
    CHECK(eqnn_rows(eqnn_parameter(c, "net.blocks.0.ga.sep_act.dtp_rad.net.6.weight")) == 12);
}

/* Methane: what its symmetry makes vanish stays small with a floor of the norms; and what nodes
   give adds up to the energy. */
TEST(equiformer_v1_of_methane)
{
    static const double at[15] = { 0, 0, 0, 1, 1, 1, 1, -1, -1, -1, 1, -1, -1, -1, 1 };
    static const int species[5] = { 0, 1, 1, 1, 1 };
    eqnn_ctx *c = test_context();
    model m = model_of(small, EQNN_MESSAGES_NONLINEAR);
    eqnn_tensor *x = labelled(eqnn_from_double(c, 5, 3, at), "1x1e"), *y[2];
    m.species = species;
    for (int k = 0; k < 2; k++) {
        m.o.norm_floor = k;
        y[k] = run(&x, 1, &m);
    }
    CHECK(test_difference(y[1], y[0]) > 1e-4);
    CHECK_NEAR(eqnn_check_equivariance(run, &x, 1, &m, 3, NULL), 0, test_eps(1e-12, 1e-4));
    m.o.each_node = 1;
    eqnn_tensor *rows = run(&x, 1, &m);
    CHECK(eqnn_rows(rows) == 5);
    CHECK_SAME(eqnn_scale(eqnn_sum_rows(rows), 1 / sqrt(m.o.nodes)), y[1], test_eps(1e-13, 1e-5));
}

TEST(equiformer_v1_drops_whole_things)
{
    for (int k = 0; k < 4; k++) {
        eqnn_ctx *c = test_context();
        eqnn_tensor *x = atoms(c, 8, 0);
        const int example[8] = { 0, 0, 0, 0, 1, 1, 1, 1 };
        model m = model_of(small, EQNN_MESSAGES_NONLINEAR), plain = m;
        *(k == 0   ? &m.o.alpha_drop
          : k == 1 ? &m.o.drop
          : k == 2 ? &m.o.out_drop
                   : &m.o.drop_path) = 0.4;
        m.example = plain.example = example;
        eqnn_tensor *still = run(&x, 1, &plain);
        CHECK(test_difference(run(&x, 1, &m), still) == 0);
        eqnn_training(c, 1);
        eqnn_tensor *dropped = run(&x, 1, &m);
        CHECK(test_difference(dropped, still) > 1e-6);
        CHECK(test_difference(run(&x, 1, &plain), still) == 0);
        m.forces = 1;
        CHECK_NEAR(eqnn_check_equivariance(run, &x, 1, &m, 2, NULL), 0, test_eps(1e-12, 1e-5));
        m.forces = 0;
        eqnn_tick(c);
        CHECK(test_difference(run(&x, 1, &m), dropped) > 1e-6);
    }
}

/* All of a path, or of what attentions and feed-forward networks give, is dropped: then they are
   not there. What goes round them is. */
TEST(equiformer_v1_drops_everything)
{
    static const char *const part[2] = { ".ga.proj.tp.weight", ".ffn.fctp_2.tp.weight" };
    eqnn_ctx *c = test_context();
    eqnn_tensor *x = atoms(c, 6, 0);
    for (int k = 0; k < 3; k++) {
        model m = model_of(small, EQNN_MESSAGES_NONLINEAR);
        m.o.drop_path = k == 1;
        m.o.drop = k == 2;
        eqnn_training(c, 1);
        eqnn_zero_gradients(c);
        CHECK(eqnn_backward(eqnn_sum(run(&x, 1, &m))));
        for (int i = 0; i < 4; i++) {
            const char *name = eqnn_format(c, "net.blocks.%d%s", i / 2, part[i % 2]);
            eqnn_tensor *dw = eqnn_gradient(eqnn_parameter(c, name));
            CHECK((eqnn_value(eqnn_sum(eqnn_square(dw))) > 0) == (k == 0));
        }
        eqnn_tensor *dw = eqnn_gradient(eqnn_parameter(c, "net.blocks.1.ffn_shortcut.tp.weight"));
        CHECK(eqnn_value(eqnn_sum(eqnn_square(dw))) > 0);
    }
}

/* The radius is that of the radial functions, 5 unless said: a molecule twice as large is the same
   with a radius twice as long. (Of exp_normal the centres begin at exp(-radius), as published.) */
TEST(equiformer_v1_radius)
{
    for (int basis = 0; basis < 2; basis++) {
        eqnn_ctx *c = test_context();
        model m = model_of(small, EQNN_MESSAGES_NONLINEAR);
        m.o.basis = basis ? EQNN_EXP_NORMAL : EQNN_GAUSSIAN;
        m.o.radius = basis ? 40 : 0;
        m.radius = 3;
        eqnn_tensor *x = atoms(c, 6, 0), *y = run(&x, 1, &m), *twice = eqnn_scale(x, 2);
        m.o.radius = basis ? 80 : 10;
        CHECK(test_difference(run(&x, 1, &m), y) > 1e-6);
        m.radius = 6;
        CHECK_SAME(run(&twice, 1, &m), y, test_eps(1e-13, 1e-5));
    }
}

TEST(drop_path_drops_examples)
{
    eqnn_ctx *c = test_context();
    int example[400], zeros = 0;
    for (int i = 0; i < 400; i++) example[i] = i / 2;
    eqnn_ints *two = eqnn_ints_make(c, 400, example, 200, 0);
    eqnn_tensor *x = labelled(eqnn_full(c, 400, 4, 1), "1x0e+1x1o"), *y;
    CHECK(eqnn_drop_path(x, "a", 0.5, two) == x);
    eqnn_training(c, 1);
    y = eqnn_drop_path(x, "a", 0.25, two);
    for (int i = 0; i < 400; i++) {
        for (int k = 0; k < 4; k++) CHECK(eqnn_at(y, i, k) == eqnn_at(y, i / 2 * 2, 0));
        zeros += eqnn_at(y, i, 0) == 0;
        if (eqnn_at(y, i, 0) != 0) CHECK_NEAR(eqnn_at(y, i, 0), 4. / 3, 1e-6);
    }
    CHECK(zeros > 60 && zeros < 140);
    CHECK(eqnn_value(eqnn_sum(eqnn_square(eqnn_as(eqnn_drop_path(x, "a", 1, NULL), NULL)))) == 0);
    CHECK(eqnn_rows(eqnn_drop_path(eqnn_zeros(c, 0, 4), "b", 0.5, NULL)) == 0);
    CHECK(!eqnn_drop_path(x, "a", 0.5, eqnn_ints_make(c, 3, example, 200, 0)));
    CHECK_ERROR(c, "drop_path: 400 rows and 3 numbers of examples");
}

/* Eight molecules are learned by heart. */
TEST(equiformer_v1_learns)
{
    eqnn_ctx *c = test_context();
    int example[24];
    double first = 0, last = 0, data[72], target[8];
    model m = model_of(small, EQNN_MESSAGES_NONLINEAR);
    for (int i = 0; i < 24; i++) example[i] = i / 3;
    for (int i = 0; i < 72; i++) data[i] = 1.3 * sin(2.7 * i * i);
    for (int i = 0; i < 8; i++) target[i] = cos(5 * i);
    m.example = example;
    m.o.alpha_drop = 0.1;
    eqnn_adam_opts adam = { .rate = 1e-2 };
    eqnn_adam *o = eqnn_adam_make(c, &adam);
    eqnn_training(c, 1);
    for (int step = 0; step < 40; step++) {
        eqnn_tensor *x = labelled(eqnn_from_double(c, 24, 3, data), "1x1e");
        eqnn_tensor *loss = eqnn_mse(eqnn_as(run(&x, 1, &m), NULL),
                                     eqnn_from_double(c, 8, 1, target));
        last = eqnn_value(loss);
        if (!step) first = last;
        eqnn_backward(loss);
        eqnn_adam_step(o);
        eqnn_reset(c);
    }
    test_note("loss %g, after 40 steps %g", first, last);
    CHECK(last < 0.5 * first);
}

/* --- radial functions --- */

static const double distances[6] = { 0, 0.3, 1.7, 4.9, 5, 6 };

/* sqrt(2/c^3) sin(k pi s)/s (1 - 21 s^5 + 35 s^6 - 15 s^7), at s = 0 its limit */
TEST(trained_bessel_basis)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *d = eqnn_from_double(c, 6, 1, distances);
    eqnn_tensor *y = eqnn_trained_basis(d, "rbf", 4, 5, EQNN_BESSEL);
    for (int i = 0; i < 6; i++)
        for (int k = 1; k <= 4; k++) {
            double pi = acos(-1), s = distances[i] / 5;
            double want = s == 0 ? k * pi : sin(k * pi * s) / s;
            want *= sqrt(2. / 125) * (1 - 21 * pow(s, 5) + 35 * pow(s, 6) - 15 * pow(s, 7));
            CHECK_NEAR(eqnn_at(y, i, k - 1), s < 1 ? want : 0, test_eps(1e-13, 1e-6));
        }
    CHECK_NEAR(eqnn_at(eqnn_parameter(c, "rbf.frequencies"), 0, 2), 3 * acos(-1), 1e-6);
}

static eqnn_tensor *gaussians(eqnn_tensor *x)
{
    return eqnn_trained_basis(x, "gauss", 4, 5, EQNN_GAUSSIAN);
}

static eqnn_tensor *bessels(eqnn_tensor *x)
{
    return eqnn_trained_basis(x, "bessel", 4, 5, EQNN_BESSEL);
}

static eqnn_tensor *exp_normals(eqnn_tensor *x)
{
    const eqnn_radial_opts o = { .basis = EQNN_EXP_NORMAL, .start = 0.25 };
    return eqnn_radial_basis(x, 4, 5, &o);
}

TEST(radial_functions_have_derivatives)
{
    eqnn_ctx *c = test_context();
    const double at[4] = { 0.4, 1.1, 3.7, 6 };
    eqnn_tensor *x = eqnn_from_double(c, 4, 1, at);
    CHECK_DERIVATIVES(gaussians, x, 2);
    CHECK_DERIVATIVES(bessels, x, 2);
    CHECK_DERIVATIVES(exp_normals, x, 2);
    CHECK(eqnn_rows(gaussians(eqnn_zeros(c, 0, 1))) == 0);
    CHECK(eqnn_at(exp_normals(x), 3, 1) == 0);
    eqnn_tensor *mean = eqnn_parameter(c, "gauss.mean"), *std = eqnn_parameter(c, "gauss.std");
    for (int k = 0; k < 4; k++) {
        CHECK(eqnn_at(mean, 0, k) >= 0 && eqnn_at(mean, 0, k) < 1);
        CHECK(eqnn_at(std, 0, k) >= 0.25 && eqnn_at(std, 0, k) < 1);
    }
    CHECK(!eqnn_trained_basis(x, "no", 4, 5, EQNN_FOURIER));
    CHECK_ERROR(c, "there are gaussian and bessel");
    CHECK(!eqnn_trained_basis(eqnn_zeros(c, 2, 3), "no", 4, 5, EQNN_BESSEL));
    CHECK_ERROR(c, "is no list of lengths [n,1]");
}

static eqnn_tensor *leaky(eqnn_tensor *x) { return eqnn_smooth_leaky_relu(x, 0.2); }

TEST(smooth_leaky_relu)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *x = test_normal(c, 3, 4), *y = leaky(x);
    for (int i = 0; i < 12; i++) {
        double v = eqnn_at(x, i / 4, i % 4);
        double want = 0.6 * v + 0.4 * v * (2 / (1 + exp(-v)) - 1);
        CHECK_NEAR(eqnn_at(y, i / 4, i % 4), want, test_eps(1e-15, 1e-6));
    }
    CHECK_DERIVATIVES(leaky, x, 2);
}

/* --- the norm --- */

static eqnn_tensor *norm(eqnn_tensor *const *x, int n, void *user)
{
    (void)n, (void)user;
    return eqnn_irreps_layer_norm(x[0], "norm", NULL);
}

TEST(irreps_layer_norm)
{
    eqnn_ctx *c = test_context();
    eqnn_norm_opts bare = { .no_affine = 1 };
    eqnn_tensor *x = labelled(test_normal(c, 5, 32), "4x0e+3x0o+5x1o+2x2e"), *y;
    norm(&x, 1, NULL);
    stir(c);
    CHECK_NEAR(eqnn_check_equivariance(norm, &x, 1, NULL, 3, NULL), 0, test_eps(1e-13, 1e-5));
    CHECK_DERIVATIVES_OF(norm, &x, 1, NULL, 2);
    y = eqnn_as(eqnn_irreps_layer_norm(x, "bare", &bare), NULL);
    for (int i = 0; i < 5; i++) {
        const int size[4] = { 4, 3, 15, 10 };
        double sum = 0, square;
        for (int b = 0, at = 0; b < 4; at += size[b++]) {
            square = 0;
            for (int k = at; k < at + size[b]; k++) {
                square += eqnn_at(y, i, k) * eqnn_at(y, i, k);
                if (b == 0) sum += eqnn_at(y, i, k);
            }
            CHECK_NEAR(square / size[b], 1, 1e-3);
        }
        CHECK_NEAR(sum, 0, 1e-5);
    }
    CHECK(test_finite(eqnn_irreps_layer_norm(eqnn_scale(x, 0), "zero", NULL)));
    bare.floor = 0.5; /* half of the other block's size at most, where this one's share vanishes */
    const double share[5] = { 1e-9, 3, 4, 0, 0 };
    y = labelled(eqnn_from_double(c, 1, 5, share), "1x0o+4x0o");
    y = eqnn_as(eqnn_irreps_layer_norm(y, "floor", &bare), NULL);
    CHECK_NEAR(eqnn_at(y, 0, 0), 1e-9 / sqrt(0.25 * 5 + 1e-5), 1e-12);
    CHECK_NEAR(eqnn_at(y, 0, 1), 3 / sqrt(25.0 / 4 + 0.25 * 5 + 1e-5), 1e-6);
    CHECK(eqnn_rows(eqnn_irreps_layer_norm(eqnn_slice_rows(x, 0, 0), "none", NULL)) == 0);
    CHECK(eqnn_cols(eqnn_irreps_layer_norm(labelled(test_normal(c, 2, 6), "2x1o"), "odd", NULL)) ==
          6);
}

/* --- sentences --- */

static void check_refused(eqnn_ctx *c, eqnn_equiformer_v1_opts o, int types, const char *sentence)
{
    const int z[2] = { 0, 1 };
    eqnn_tensor *x = eqnn_from_double(c, 2, 3, distances);
    CHECK(!eqnn_equiformer_v1(eqnn_ints_make(c, 2, z, types, 0), x, eqnn_radius_graph(x, 5, NULL),
                              "net", &o));
    CHECK_ERROR(c, sentence);
}

TEST(equiformer_v1_says_what_is_wrong)
{
    eqnn_ctx *c = test_context();
    eqnn_equiformer_v1_opts o = small;
    eqnn_tensor *x = eqnn_from_double(c, 2, 3, distances);
    CHECK(!eqnn_equiformer_v1_preset(c, "qm10", &o));
    CHECK_ERROR(c, "there is no preset \"qm10\"; there are qm9");
    o.node = "4x1e+6x0e";
    check_refused(c, o, 3, ".node = \"4x1e+6x0e\" must list each irrep once, 0e first");
    o = small;
    o.head = "2x0e+2x0e";
    check_refused(c, o, 3, ".head = \"2x0e+2x0e\" must list");
    o.head = "2x0";
    check_refused(c, o, 3, "2x0");
    o = small;
    o.basis = EQNN_FOURIER;
    check_refused(c, o, 3, "there are gaussian and bessel");
    check_refused(c, small, 0, "2 species of range 0 (the number of species)");
    o = small;
    o.messages = (eqnn_messages)7;
    check_refused(c, o, 3, "there are no messages 7");
    o = small;
    o.heads = 2147483647;
    check_refused(c, o, 3, "is too wide");
    CHECK(!eqnn_equiformer_v1(NULL, x, eqnn_radius_graph(x, 5, NULL), "net", &small));
    CHECK_ERROR(c, "2 positions, 0 species");
    CHECK(!eqnn_equiformer_v1(NULL, x, NULL, "net", NULL));
    CHECK_ERROR(c, "a graph of 0 sources");
    CHECK(!eqnn_equiformer_v1(NULL, NULL, NULL, "net", NULL));
}

TEST_MAIN
