/* escn.c - the equivariant spherical channel network (section 13 of eqnn.h) */
#define NETWORK eqnn_escn
#define NETWORK_OPTS eqnn_escn_opts
#include "molecules.h"

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
    return molecules(c, small(lmax, mmax), eqnn_format(c, "l%dm%d", lmax, mmax));
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

/* As far as the grids are fine: those of the original are not, nor is its spiral. */
TEST(escn_turns)
{
    static const int sizes[4][2] = { { 1, -1 }, { 2, 1 }, { 3, 2 }, { 3, 3 } };
    eqnn_ctx *c = test_context();
    eqnn_tensor *pos = positions(c);
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
    eqnn_tensor *pos = positions(c);
    m.o.beta = m.o.points = 30; /* what is left of the grid's error does not show */
    if (test_eps(1, 0) > 0) CHECK_DERIVATIVES_OF(energy_of, &pos, 1, &m, 1);
    m.o.lmax = m.o.mmax = -1;
    m.name = "scalars";
    CHECK_DERIVATIVES_OF(energy_of, &pos, 1, &m, 1);
    if (test_eps(1, 0) > 0) CHECK_DERIVATIVES_OF(energy_of, &pos, 1, &m, 2);
    CHECK_OK(c);
}

TEST(escn_more_inputs)
{
    eqnn_ctx *c = test_context();
    check_more_inputs(two_molecules(c, 2, 1), positions(c),
                      "layer_blocks.0.message_block.so2_block_source.so2_conv.0.fc1_i.weight",
                      test_eps(1e-11, 1e-4));
}

TEST(escn_given_frames)
{
    eqnn_ctx *c = test_context();
    check_given_frames(two_molecules(c, 2, 1), positions(c),
                       "layer_blocks.0.message_block.so2_block_source.fc1_m0.weight",
                       test_eps(1e-11, 1e-4));
}

/* Edges beyond the envelope count for nothing, and none comes with a jump. */
TEST(escn_fades_edges_out)
{
    eqnn_ctx *c = test_context();
    eqnn_escn_opts o = small(2, 1);
    double sudden = jump(c, &o, "net");
    o.envelope = 3;
    double smooth = jump(c, &o, "net");
    test_note("an atom comes: %.1e; with an envelope %.1e", sudden, smooth);
    CHECK(sudden > 1e-5 && smooth < test_eps(1e-9, 1e-5));
    check_beyond(c, &o, "net");
}

TEST(escn_examples_are_apart)
{
    eqnn_ctx *c = test_context();
    check_apart(two_molecules(c, 2, 2), positions(c));
}

TEST(escn_awkward_input)
{
    eqnn_ctx *c = test_context();
    model m = two_molecules(c, 2, 1), bad = m;
    eqnn_tensor *pos = awkward_positions(c), *f = NULL;
    louder(&m, pos);
    CHECK(symmetry_error(&m, pos) < 1e-4);
    check_awkward(m, pos, test_eps(1e-12, 1e-5));
    bad.o.forces = &f;
    bad.o.hidden = -1;
    CHECK(!energy_of(&pos, 1, &bad));
    CHECK_ERROR(c, "escn: no size may be negative");
    bad.o = m.o;
    bad.o.forces = &f;
    bad.o.lmax = -1;
    CHECK(!energy_of(&pos, 1, &bad) && !f);
    CHECK_TEXT(eqnn_error(c), "escn: lmax 0 has no degree 1: no forces");
    CHECK_ERROR(c, "lmax 0");
    bad.o = m.o;
    bad.o.samples = -3;
    CHECK(!energy_of(&pos, 1, &bad));
    CHECK_ERROR(c, "a spiral of -3 points");
}

TEST(escn_rolls)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *pos = positions(c);
    model m = two_molecules(c, 2, 2);
    louder(&m, pos);
    check_rolls(m, pos, 1e-4);
}

/* Options of which there is no other test: each gives other energies of the same weights. */
TEST(escn_sizes_of_grids_and_gaussians)
{
    eqnn_ctx *c = test_context();
    model m = two_molecules(c, 2, 1);
    eqnn_tensor *pos = positions(c);
    louder(&m, pos);
    eqnn_tensor *e = energy_of(&pos, 1, &m);
    m.o.width = 3;
    CHECK(test_difference(energy_of(&pos, 1, &m), e) > 1e-3);
    m.o.width = 1;
    CHECK_SAME(energy_of(&pos, 1, &m), e, 0);
    m.o.scale = 2;
    CHECK_SAME(energy_of(&pos, 1, &m), eqnn_scale(e, 2), test_eps(1e-14, 1e-6));
    m.o.scale = 1;
    m.o.beta = 6;
    eqnn_tensor *coarse = energy_of(&pos, 1, &m);
    m.o.points = 5;
    CHECK(test_difference(energy_of(&pos, 1, &m), coarse) > 1e-8);
    CHECK(test_difference(coarse, e) > 1e-8);
}

/* The gaussians reach to 8 unless said, each as wide as their distance. */
TEST(escn_gaussians)
{
    eqnn_ctx *c = test_context();
    model m = two_molecules(c, 2, 1);
    eqnn_tensor *pos = positions(c);
    m.o.radius = m.o.width = 0;
    eqnn_tensor *e = energy_of(&pos, 1, &m);
    m.o.radius = 8, m.o.width = 1;
    CHECK_SAME(energy_of(&pos, 1, &m), e, 0);
}

static model steady(eqnn_ctx *c, int which)
{
    model m = two_molecules(c, 2, which + 1);
    m.o.layers = 1;
    m.o.beta = 12, m.o.points = 10;
    m.o.samples = which ? 16 : 0;
    return m;
}

TEST(escn_steady_state) { check_steady(steady, 2); }

/* Weights of a published network's size; those of n layers are linear in n. */
TEST(escn_published_size)
{
    double size[2];
    eqnn_escn_opts o;
    memset(&o, 0, sizeof o);
    o.beta = o.points = 14;
    for (o.layers = 1; o.layers <= 2; o.layers++) size[o.layers - 1] = network_size(o);
    CHECK_NEAR(size[0] + 7 * (size[1] - size[0]), 34379776, 0);
}

TEST_MAIN
