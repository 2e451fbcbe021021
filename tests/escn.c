/* escn.c - the equivariant spherical channel network (section 13 of eqnn.h) */
#include "molecules.h"

typedef struct model {
    eqnn_ints *species;
    const eqnn_graph *g;
    eqnn_escn_opts o;
    const char *name;
} model;

static eqnn_tensor *energy_of(eqnn_tensor *const *x, int n, void *user)
{
    const model *m = (const model *)user;
    (void)n;
    return eqnn_escn(m->species, x[0], m->g, m->name, &m->o);
}

static eqnn_escn_opts small(int lmax, int mmax)
{
    eqnn_escn_opts o;
    memset(&o, 0, sizeof o);
    o.lmax = lmax;
    o.mmax = mmax;
    o.layers = 2;
    o.channels = 4;
    o.hidden = 5;
    o.edge_channels = 6;
    o.gaussians = 12;
    o.radius = 6;
    o.scale = 1;
    return o;
}

static model two_molecules(eqnn_ctx *c, int lmax, int mmax)
{
    model m;
    memset(&m, 0, sizeof m);
    m.g = two_molecules_graph(c);
    m.species = two_molecules_species(c);
    m.o = small(lmax, mmax);
    m.name = eqnn_format(c, "l%dm%d", lmax, mmax);
    return m;
}

/* Makes the weights, and then twice as large as they begin: those networks are as good as linear,
   and their forces small beside what they are differences of. */
static void louder(model *m, eqnn_tensor *pos)
{
    eqnn_ctx *c = eqnn_context(pos);
    eqnn_tensor *f = NULL;
    m->o.forces = &f;
    energy_of(&pos, 1, m);
    m->o.forces = NULL;
    for (int i = 0; i < eqnn_parameter_count(c); i++) {
        eqnn_tensor *p = eqnn_parameter_at(c, i);
        int cols = eqnn_cols(p);
        double *v = (double *)malloc((size_t)eqnn_rows(p) * (size_t)cols * sizeof *v);
        if (strncmp(eqnn_parameter_name(c, i), m->name, strlen(m->name))) cols = 0;
        for (int k = 0; v && k < eqnn_rows(p) * cols; k++)
            v[k] = 2 * eqnn_at(p, k / cols, k % cols);
        if (v && cols) CHECK(eqnn_set(p, v));
        free(v);
    }
}

static double symmetry_error(model *m, eqnn_tensor *pos)
{
    return molecules_error(energy_of, m, &m->o.forces, pos);
}

/* As far as the grids are fine: those of the original are not, nor is its spiral. */
TEST(escn_turns)
{
    static const int sizes[4][2] = { { 1, -1 }, { 2, 1 }, { 3, 2 }, { 3, 3 } };
    eqnn_ctx *c = test_context();
    eqnn_tensor *pos = eqnn_scale(test_normal(c, ATOMS, 3), 1.2);
    for (int i = 0; i < 4; i++) {
        model m = two_molecules(c, sizes[i][0], sizes[i][1]);
        double fine, coarse, spiral;
        louder(&m, pos);
        fine = symmetry_error(&m, pos);
        m.o.samples = 128;
        spiral = symmetry_error(&m, pos);
        m.o.samples = 0, m.o.beta = -1;
        coarse = symmetry_error(&m, pos);
        test_note("degrees %d, orders %d: %.1e; 128 points of a spiral %.1e; the smallest grids "
                  "%.1e", m.o.lmax, m.o.mmax, fine, spiral, coarse);
        CHECK(fine < 1e-4 && spiral > 1e-3 && coarse > 10 * fine);
    }
    CHECK_OK(c);
}

TEST(escn_derivatives)
{
    eqnn_ctx *c = test_context();
    model m = two_molecules(c, 2, 1);
    eqnn_tensor *pos = eqnn_scale(test_normal(c, ATOMS, 3), 1.2);
    m.o.beta = m.o.points = 30; /* what is left of the grid's error does not show */
    if (test_eps(1, 0) > 0) CHECK_DERIVATIVES_OF(energy_of, &pos, 1, &m, 1);
    m.o.lmax = m.o.mmax = -1;
    m.name = "scalars";
    CHECK_DERIVATIVES_OF(energy_of, &pos, 1, &m, 1);
    if (test_eps(1, 0) > 0) CHECK_DERIVATIVES_OF(energy_of, &pos, 1, &m, 2);
    CHECK_OK(c);
}

/* Layers that are computed again; features that go in and come out, and numbers of edges. */
TEST(escn_more_inputs)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *pos = eqnn_scale(test_normal(c, ATOMS, 3), 1.2), *features = NULL;
    eqnn_tensor *y[2], *force[2], *second[2], *dw[2];
    model m = two_molecules(c, 2, 1);
    m.o.x = eqnn_as(test_normal(c, ATOMS, 5), eqnn_irreps_make(c, "2x0e+1x1o"));
    m.o.edges = test_normal(c, EDGES, 2);
    m.o.features = &features;
    m.o.envelope = 8;
    for (int k = 0; k < 2; k++) {
        m.o.checkpoint = k;
        y[k] = energy_of(&pos, 1, &m);
        force[k] = eqnn_grad(eqnn_sum(y[k]), pos);
        eqnn_tensor *loss = eqnn_sum(eqnn_square(force[k]));
        second[k] = eqnn_grad(loss, pos);
        eqnn_zero_gradients(c);
        eqnn_backward(loss);
        dw[k] = eqnn_gradient(eqnn_parameter(
            c, "l2m1.layer_blocks.0.message_block.so2_block_source.so2_conv.0.fc1_i.weight"));
    }
    double eps = test_eps(1e-11, 1e-4);
    CHECK(relative(y[1], y[0]) <= eps && relative(force[1], force[0]) <= eps);
    CHECK(relative(second[1], second[0]) <= eps && relative(dw[1], dw[0]) <= eps);
    CHECK(features && eqnn_rows(features) == ATOMS && eqnn_cols(features) == 4 * 9);
    m.o.each_node = 1;
    eqnn_tensor *rows = energy_of(&pos, 1, &m);
    CHECK(eqnn_rows(rows) == ATOMS);
    CHECK(relative(eqnn_pool_sum(rows, m.g), y[1]) <= eps);
    CHECK(eqnn_parameter(c, "l2m1.x_embed.weight") != NULL);
    for (int i = 0; i < eqnn_parameter_count(c); i++)
        CHECK(test_finite(eqnn_gradient(eqnn_parameter_at(c, i))));
    m.o.x = test_normal(c, 1, 1);
    CHECK(!energy_of(&pos, 1, &m) && !features);
    CHECK_ERROR(c, ".x has 1 rows");
}

/* Edges beyond the envelope count for nothing, and none comes with a jump. */
TEST(escn_fades_edges_out)
{
    eqnn_ctx *c = test_context();
    eqnn_escn_opts o = small(2, 1);
    eqnn_tensor *x = eqnn_scale(test_normal(c, 9, 3), 2);
    eqnn_ints *kind = eqnn_ints_make(c, 9, (const int[]){ 0, 1, 2, 3, 4, 0, 1, 2, 3 }, 5, 0);
    double E[2][2], pos[9] = { 0, 0, 0, 0, 1.1, 0, 0, 0, 0 };
    for (int faded = 0; faded < 2; faded++) {
        o.envelope = faded ? 3 : 0;
        for (int k = 0; k < 2; k++) {
            pos[6] = 3 + (k ? 1e-6 : -1e-6);
            eqnn_tensor *three = eqnn_from_double(c, 3, 3, pos);
            E[faded][k] = eqnn_value(eqnn_escn(eqnn_ints_make(c, 3, (const int[]){ 0, 1, 2 }, 5, 0),
                                               three, eqnn_radius_graph(three, 3, NULL), "net",
                                               &o));
        }
    }
    double sudden = fabs(E[0][1] / E[0][0] - 1), smooth = fabs(E[1][1] / E[1][0] - 1);
    test_note("an atom comes: %.1e; with an envelope %.1e", sudden, smooth);
    CHECK(sudden > 1e-5 && smooth < test_eps(1e-9, 1e-5));
    for (int k = 0; k < 2; k++)
        E[0][k] = eqnn_value(eqnn_escn(kind, x, eqnn_radius_graph(x, k ? 9 : 3, NULL), "net", &o));
    CHECK_NEAR(E[0][1], E[0][0], test_eps(1e-13, 1e-5) * fabs(E[0][0]));
    CHECK_OK(c);
}

/* Molecules do not see each other; the order of atoms does not matter. */
TEST(escn_examples_are_apart)
{
    eqnn_ctx *c = test_context();
    model m = two_molecules(c, 2, 2), one = m;
    eqnn_tensor *pos = eqnn_scale(test_normal(c, ATOMS, 3), 1.2), *f = NULL, *f1 = NULL;
    one.g = second_molecule_graph(c);
    one.species = second_molecule_species(c);
    m.o.forces = &f, one.o.forces = &f1;
    eqnn_ints *index = second_molecule_atoms(c);
    eqnn_tensor *e = energy_of(&pos, 1, &m), *some = eqnn_take(pos, index);
    eqnn_tensor *e1 = energy_of(&some, 1, &one);
    CHECK_NEAR(eqnn_value(e1), eqnn_at(e, 1, 0), test_eps(1e-13, 1e-5));
    CHECK_SAME(eqnn_as(f1, NULL), eqnn_as(eqnn_take(f, index), NULL), test_eps(1e-13, 1e-5));
    CHECK_OK(c);
}

/* Coincident atoms, an edge along -y, no edge, no atom at all; what cannot be. */
TEST(escn_awkward_input)
{
    eqnn_ctx *c = test_context();
    model m = two_molecules(c, 2, 1);
    double x[ATOMS][3] = { { 0, 0, 0 }, { 0, 1, 0 }, { 0, 1, 0 }, { 0, 0, 2 },
                           { 1, 1, 1 }, { 1, 1, 1 }, { 1, -1, 1 } };
    eqnn_tensor *pos = eqnn_from_double(c, ATOMS, 3, &x[0][0]), *f = NULL;
    louder(&m, pos);
    CHECK(symmetry_error(&m, pos) < 1e-4);
    m.o.forces = &f;
    eqnn_tensor *e = energy_of(&pos, 1, &m), *g = eqnn_grad(eqnn_sum(e), pos);
    CHECK(test_finite(e) && test_finite(g) && test_finite(f));
    CHECK(test_finite(eqnn_grad(eqnn_sum(eqnn_square(g)), pos)));
    eqnn_graph_opts go;
    memset(&go, 0, sizeof go);
    go.targets = ATOMS;
    model alone = m;
    alone.g = eqnn_graph_make(c, 0, NULL, NULL, &go);
    CHECK(test_finite(energy_of(&pos, 1, &alone)));
    CHECK_SAME(eqnn_as(f, NULL), eqnn_zeros(c, ATOMS, 3), test_eps(1e-12, 1e-5));
    go.targets = 0;
    go.examples = 1;
    alone.g = eqnn_graph_make(c, 0, NULL, NULL, &go);
    alone.species = eqnn_ints_make(c, 0, NULL, 5, 0);
    eqnn_tensor *none = eqnn_zeros(c, 0, 3);
    CHECK_SAME(energy_of(&none, 1, &alone), eqnn_zeros(c, 1, 1), 0);
    CHECK_OK(c);
    model bad = m;
    bad.o.hidden = -1;
    CHECK(!energy_of(&pos, 1, &bad));
    CHECK_ERROR(c, "escn: no size may be negative");
    bad = m;
    bad.species = alone.species;
    CHECK(!energy_of(&pos, 1, &bad));
    CHECK_ERROR(c, "0 species");
    bad = m;
    bad.o.lmax = -1;
    CHECK(!energy_of(&pos, 1, &bad) && !f);
    CHECK_ERROR(c, "lmax 0 has no degree 1");
    bad = m;
    bad.o.samples = -3;
    CHECK(!energy_of(&pos, 1, &bad));
    CHECK_ERROR(c, "a spiral of -3 points");
}

/* After the first steps nothing new is kept. */
TEST(escn_steady_state)
{
    eqnn_ctx *c = test_context();
    size_t lasting = 0;
    for (int step = 0; step < 4; step++) {
        for (int k = 0; k < 2; k++) {
            model m = two_molecules(c, 2, k + 1);
            eqnn_tensor *pos = test_normal(c, ATOMS, 3), *f = NULL;
            m.o.layers = 1;
            m.o.beta = 12, m.o.points = 10;
            m.o.samples = k ? 16 : 0;
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

/* Weights of a published network's size; those of n layers are linear in n. */
static double parameters(int layers)
{
    static const int kind[2] = { 0, 1 }, ends[2] = { 0, 1 };
    double x[2][3] = { { 0, 0, 0 }, { 1, 2, 3 } }, count;
    eqnn_opts co = test_opts();
    eqnn_ctx *c = eqnn_make(&co);
    eqnn_escn_opts o;
    eqnn_graph_opts go;
    eqnn_tensor *f = NULL;
    memset(&o, 0, sizeof o);
    memset(&go, 0, sizeof go);
    go.targets = 2;
    o.layers = layers;
    o.beta = o.points = 14;
    o.forces = &f;
    eqnn_recording(c, 0);
    eqnn_escn(eqnn_ints_make(c, 2, kind, 90, 0), eqnn_from_double(c, 2, 3, &x[0][0]),
              eqnn_graph_make(c, 1, ends, ends + 1, &go), "", &o);
    count = eqnn_error(c) ? NAN : (double)eqnn_parameter_size(c);
    eqnn_free(c);
    return count;
}

TEST(escn_published_size)
{
    double one = parameters(1);
    CHECK_NEAR(one + 7 * (parameters(2) - one), 34379776, 0);
}

TEST_MAIN
