/* equiformer_v2.c - EquiformerV2 and what it is made of (sections 11 and 13 of eqnn.h) */
#define NETWORK eqnn_equiformer_v2
#define NETWORK_OPTS eqnn_equiformer_v2_opts
#include "molecules.h"

/* A small network; with gates it is symmetric up to rounding. */
static eqnn_equiformer_v2_opts small(eqnn_sphere_act act)
{
    eqnn_equiformer_v2_opts o;
    memset(&o, 0, sizeof o);
    o.lmax = 2;
    o.blocks = 2;
    o.channels = 4;
    o.hidden = 5;
    o.heads = 2;
    o.alpha = 3;
    o.value = 2;
    o.ffn = 6;
    o.act = act;
    o.no_grid_mlp = act == EQNN_DEGREE_GATE;
    o.edge_channels = 6;
    o.gaussians = 12;
    o.radius = 6;
    o.nodes = 1;
    o.neighbours = 3;
    return o;
}

static model two_molecules(eqnn_ctx *c, eqnn_sphere_act act)
{
    return molecules(c, small(act), "v2");
}

TEST(v2_turns)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *pos = positions(c);
    for (int norm = 0; norm < 3; norm++) { /* every norm; with gates exactly */
        model m = two_molecules(c, EQNN_DEGREE_GATE);
        m.o.norm = (eqnn_v2_norm)norm;
        m.name = eqnn_format(c, "gate%d", norm);
        CHECK_NEAR(symmetry_error(&m, pos), 0, test_eps(1e-12, 2e-5));
    }
    for (int grid = 0; grid < 4; grid++) { /* functions on the sphere: as the grid is fine */
        model m = two_molecules(c, grid % 2 ? EQNN_S2 : EQNN_SEPARABLE_S2);
        m.o.no_grid_mlp = grid / 2;
        m.o.no_renorm = grid == 3;
        m.name = eqnn_format(c, "grid%d", grid);
        CHECK_NEAR(symmetry_error(&m, pos), 0, 1e-4);
        if (grid) continue;
        m.o.beta = 6, m.o.points = 5;
        CHECK(symmetry_error(&m, pos) > 1e-3); /* and the smallest grid is not */
    }
    CHECK_OK(c);
}

/* Methane: with a floor, or by a norm that divides all degrees together, rounding stays
   rounding. */
TEST(v2_of_symmetric_molecules)
{
    static const double at[15] = { 0, 0, 0, 1, 1, 1, 1, -1, -1, -1, 1, -1, -1, -1, 1 };
    static const int kind[5] = { 0, 1, 1, 1, 1 };
    eqnn_ctx *c = test_context();
    double R[9], error[3];
    eqnn_rotation_random(c, "first", 0, R);
    eqnn_tensor *pos = turned(eqnn_from_double(c, 5, 3, at), R);
    model m = two_molecules(c, EQNN_DEGREE_GATE);
    m.g = eqnn_complete_graph(c, 5, NULL);
    m.species = eqnn_ints_make(c, 5, kind, 5, 0);
    m.o.blocks = 4;
    for (int k = 0; k < 3; k++) {
        m.o.norm = k == 2 ? EQNN_V2_RMS_NORM : EQNN_V2_SEPARABLE_NORM;
        m.o.norm_floor = k == 1;
        m.name = k == 2 ? "rms" : "v2";
        error[k] = symmetry_error(&m, pos);
    }
    test_note("CH4 turned: %.1e, with a floor of the norms %.1e", error[0], error[1]);
    for (int k = 1; k < 3; k++)
        CHECK(error[k] <= test_eps(1e-12, 1e-4) && error[0] > 100 * error[k]);
}

TEST(v2_fades_edges_out)
{
    eqnn_ctx *c = test_context();
    eqnn_equiformer_v2_opts o = small(EQNN_DEGREE_GATE);
    double sudden = jump(c, &o, "v2");
    o.envelope = 3, o.norm_floor = 1;
    double smooth = jump(c, &o, "v2");
    test_note("an atom comes: %.1e; with an envelope %.1e", sudden, smooth);
    CHECK(sudden > 1e-4 && smooth < test_eps(1e-9, 1e-5));
    static const char *const sharp = "v2.blocks.0.ga.alpha_dot"; /* logits of some hundreds */
    int n = eqnn_cols(eqnn_parameter(c, sharp)) * eqnn_rows(eqnn_parameter(c, sharp));
    double *v = (double *)malloc((size_t)n * sizeof *v);
    for (int i = 0; i < n; i++) v[i] = i % 2 ? 200 : -200;
    CHECK(eqnn_set(eqnn_parameter(c, sharp), v));
    free(v);
    check_beyond(c, &o, "v2");
}

TEST(v2_more_inputs)
{
    eqnn_ctx *c = test_context();
    model m = two_molecules(c, EQNN_DEGREE_GATE);
    m.o.drop_path = m.o.alpha_drop = 0.2;
    eqnn_training(c, 1);
    check_more_inputs(m, positions(c), "blocks.0.ga.proj.weight", test_eps(1e-12, 2e-4));
}

TEST(v2_given_frames)
{
    eqnn_ctx *c = test_context();
    check_given_frames(two_molecules(c, EQNN_DEGREE_GATE), positions(c),
                       "blocks.0.ga.proj.weight", test_eps(1e-12, 2e-4));
}

/* Forces as derivatives: exact, and so are derivatives of losses on them. */
TEST(v2_derivatives)
{
    eqnn_ctx *c = test_context();
    model m = two_molecules(c, EQNN_DEGREE_GATE);
    eqnn_tensor *pos = positions(c);
    m.o.blocks = 1;
    CHECK_DERIVATIVES_OF(energy_of, &pos, 1, &m, 1);
    if (test_eps(1, 0) > 0) CHECK_DERIVATIVES_OF(energy_of, &pos, 1, &m, 2);
    model s = two_molecules(c, EQNN_SEPARABLE_S2);
    s.name = "s2";
    s.o.blocks = 1;
    s.o.beta = s.o.points = 30; /* what is left of the grid's error does not show */
    if (test_eps(1, 0) > 0) CHECK_DERIVATIVES_OF(energy_of, &pos, 1, &s, 1);
    CHECK_OK(c);
}

TEST(v2_examples_are_apart)
{
    eqnn_ctx *c = test_context();
    check_apart(two_molecules(c, EQNN_SEPARABLE_S2), positions(c));
}

TEST(v2_awkward_input)
{
    eqnn_ctx *c = test_context();
    model m = two_molecules(c, EQNN_DEGREE_GATE), bad = m;
    eqnn_tensor *pos = awkward_positions(c), *f = NULL;
    CHECK_NEAR(symmetry_error(&m, pos), 0, test_eps(1e-12, 2e-5));
    check_awkward(m, pos, 0);
    bad.o.heads = -1;
    CHECK(!energy_of(&pos, 1, &bad));
    CHECK_ERROR(c, "negative");
    bad.o = m.o;
    bad.o.norm = (eqnn_v2_norm)9;
    CHECK(!energy_of(&pos, 1, &bad));
    CHECK_ERROR(c, "no norm 9");
    bad.o.norm = EQNN_V2_RMS_NORM;
    bad.o.lmax = -1;
    bad.o.forces = &f;
    CHECK(!energy_of(&pos, 1, &bad));
    CHECK_ERROR(c, "lmax 0 has no degree 1: no forces");
    bad.o.forces = NULL;
    bad.o.act = EQNN_DEGREE_GATE;
    CHECK(!energy_of(&pos, 1, &bad));
    CHECK_ERROR(c, "lmax 0 has no degree 1: no gates of degrees");
    bad = two_molecules(c, EQNN_SEPARABLE_S2);
    bad.o.lmax = -1;
    bad.name = "scalars";
    CHECK(test_finite(energy_of(&pos, 1, &bad)));
    CHECK_OK(c);
    bad = two_molecules(c, EQNN_SEPARABLE_S2);
    bad.o.beta = 7;
    bad.name = "odd";
    CHECK(!energy_of(&pos, 1, &bad));
    CHECK_ERROR(c, "even in number");
}

TEST(v2_rolls)
{
    eqnn_ctx *c = test_context();
    check_rolls(two_molecules(c, EQNN_SEPARABLE_S2), positions(c), 1e-4);
}

/* What a network is made of, by the names of its weights. */
TEST(v2_parts)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *pos = positions(c);
    model m = two_molecules(c, EQNN_SEPARABLE_S2);
    for (int k = 0; k < 3; k++) {
        m.name = eqnn_format(c, "net%d", k);
        m.o.no_renorm = k == 1;
        m.o.no_grid_mlp = k == 2;
        CHECK(energy_of(&pos, 1, &m) != NULL);
        const char *norm = eqnn_format(c, "%s.blocks.0.ga.alpha_norm.weight", m.name);
        const char *grid = eqnn_format(c, "%s.blocks.0.ffn.grid_mlp.0.weight", m.name);
        CHECK((eqnn_parameter(c, norm) != NULL) == (k != 1));
        CHECK((eqnn_parameter(c, grid) != NULL) == (k != 2));
    }
}

/* What is left out is what the manual says: the same weights give the same numbers. */
TEST(v2_defaults)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *pos = positions(c);
    model few = two_molecules(c, EQNN_DEGREE_GATE), m;
    eqnn_equiformer_v2_opts *o = &few.o;
    o->lmax = o->mmax = o->blocks = 0;
    o->radius = o->width = o->nodes = o->neighbours = 0;
    eqnn_tensor *e = energy_of(&pos, 1, &few);
    m = few;
    m.o.lmax = 4, m.o.mmax = 2, m.o.blocks = 8;
    m.o.width = 2, m.o.radius = 12, m.o.nodes = 77.81317, m.o.neighbours = 23.395238876342773;
    CHECK_SAME(energy_of(&pos, 1, &m), e, 0);
    m.name = "flat";
    m.o.mmax = -1, m.o.blocks = 1; /* order 0 alone: no maps of others */
    CHECK(energy_of(&pos, 1, &m) != NULL);
    CHECK(eqnn_parameter(c, "flat.blocks.0.ga.so2_conv_2.fc_m0.weight") != NULL);
    CHECK(!eqnn_parameter(c, "flat.blocks.0.ga.so2_conv_2.so2_m_conv.0.fc.weight"));
    CHECK(eqnn_parameter(c, "v2.blocks.0.ga.so2_conv_2.so2_m_conv.0.fc.weight") != NULL);
}

/* A norm that divides all degrees together needs no floor and has none. */
TEST(v2_floors)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *pos = positions(c);
    for (int norm = 0; norm < 3; norm++) {
        model m = two_molecules(c, EQNN_DEGREE_GATE);
        m.name = eqnn_format(c, "net%d", norm);
        m.o.norm = (eqnn_v2_norm)norm;
        eqnn_tensor *e = energy_of(&pos, 1, &m);
        m.o.norm_floor = 1;
        double change = test_difference(energy_of(&pos, 1, &m), e);
        CHECK(norm == EQNN_V2_RMS_NORM ? change == 0 : change > 1e-6);
    }
}

/* The smallest grids: 2 lmax + 2 rings, of 2 mmax + 1 points in the frame of an edge, of
   2 lmax + 3 at nodes. Features see the one or the other where only attentions, or only networks,
   have weights. */
TEST(v2_smallest_grids)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *pos = positions(c), *features = NULL, *small_grid;
    for (int k = 0; k < 4; k++) {
        int attention = k % 2;
        model m = two_molecules(c, EQNN_S2);
        m.o.mmax = 1;
        m.o.no_grid_mlp = k / 2;
        m.o.features = &features;
        m.o.beta = -1;
        m.name = eqnn_format(c, "net%d", k);
        energy_of(&pos, 1, &m);
        for (int i = 0; i < eqnn_parameter_count(c); i++) {
            eqnn_tensor *w = eqnn_parameter_at(c, i);
            const char *name = eqnn_parameter_name(c, i);
            if (strncmp(name, m.name, 4)) continue;
            if (!strstr(name, attention ? "ffn.so3_linear_2." : "ga.proj.")) continue;
            double *v = (double *)calloc((size_t)eqnn_rows(w) * (size_t)eqnn_cols(w), sizeof *v);
            eqnn_set(w, v);
            free(v);
        }
        energy_of(&pos, 1, &m);
        small_grid = features;
        m.o.beta = 6;
        m.o.points = attention ? 3 : 7;
        energy_of(&pos, 1, &m);
        CHECK_SAME(features, small_grid, 0);
        m.o.points = attention ? 7 : 3;
        energy_of(&pos, 1, &m);
        CHECK(test_difference(features, small_grid) > 1e-9);
    }
}

/* Noise of training: other results, the same ones for the same tick, and none without training. */
TEST(v2_training)
{
    eqnn_ctx *c = test_context();
    model m = two_molecules(c, EQNN_SEPARABLE_S2);
    eqnn_tensor *pos = positions(c), *e[4];
    e[0] = energy_of(&pos, 1, &m);
    for (int k = 0; k < 3; k++) {
        m.o.alpha_drop = k == 0 ? 0.3 : 0;
        m.o.drop_path = k == 1 ? 0.3 : 0;
        m.o.proj_drop = k == 2 ? 0.2 : 0;
        e[1] = energy_of(&pos, 1, &m);
        eqnn_training(c, 1);
        e[2] = energy_of(&pos, 1, &m);
        e[3] = energy_of(&pos, 1, &m);
        eqnn_training(c, 0);
        CHECK_SAME(e[1], e[0], 0);
        CHECK_SAME(e[3], e[2], 0);
        CHECK(test_difference(e[2], e[0]) > 1e-8);
        CHECK(eqnn_backward(eqnn_sum(eqnn_square(e[2]))));
    }
    for (int i = 0; i < eqnn_parameter_count(c); i++)
        CHECK(test_finite(eqnn_gradient(eqnn_parameter_at(c, i))));
    CHECK_OK(c);
}

static model steady(eqnn_ctx *c, int which)
{
    model m = two_molecules(c, (eqnn_sphere_act)which);
    m.name = eqnn_format(c, "act%d", which);
    m.o.blocks = 1;
    m.o.beta = 12, m.o.points = 10;
    return m;
}

TEST(v2_steady_state) { check_steady(steady, 3); }

/* Values at points are made a part of the rows at a time: the same numbers and derivatives. */
static eqnn_tensor *on_sphere(eqnn_tensor *x)
{
    eqnn_sphere_opts o;
    memset(&o, 0, sizeof o);
    o.act = EQNN_S2;
    o.beta = 60, o.alpha = 80;
    return eqnn_sphere_activation(eqnn_as(x, eqnn_irreps_uniform(eqnn_context(x), 40, 1)), 1, NULL,
                                  &o);
}

TEST(sphere_in_parts)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *x = test_normal(c, 27, 160), *y = on_sphere(x), *dx = NULL, *dx1 = NULL;
    eqnn_tensor *one[27], *g = test_normal(c, 27, 160);
    for (int r = 0; r < 27; r++) one[r] = on_sphere(eqnn_slice_rows(x, r, 1));
    eqnn_tensor *stacked = eqnn_stack(one, 27);
    CHECK_SAME(y, stacked, test_eps(1e-14, 1e-5));
    dx = eqnn_vjp(y, g, x);
    dx1 = eqnn_vjp(stacked, g, x);
    CHECK_SAME(dx, dx1, test_eps(1e-14, 1e-5));
    CHECK_OK(c);
}

/* To a grid of the size that is asked for, silu, and back; degree 0 from scalars, or gates. */
TEST(sphere_by_definition)
{
    eqnn_ctx *c = test_context();
    enum { C = 3 };
    eqnn_grid_opts grid = { .beta = 8, .alpha = 7 };
    eqnn_sphere_opts o = { .act = EQNN_S2, .beta = 8, .alpha = 7 };
    const eqnn_irreps *a = eqnn_irreps_uniform(c, C, 2);
    eqnn_tensor *x = eqnn_as(test_normal(c, 5, 9 * C), a), *bare = eqnn_as(x, NULL);
    eqnn_tensor *s = test_normal(c, 5, 2 * C), *s0 = eqnn_slice(s, 0, C);
    eqnn_tensor *y = eqnn_from_s2grid(eqnn_silu(eqnn_to_s2grid(x, &grid)), a, &grid);
    CHECK_SAME(eqnn_sphere_activation(x, 2, NULL, &o), y, test_eps(1e-13, 1e-5));
    o.act = EQNN_SEPARABLE_S2;
    eqnn_tensor *rest = eqnn_slice(eqnn_as(y, NULL), C, 8 * C);
    CHECK_SAME(eqnn_sphere_activation(x, 2, s0, &o), eqnn_concat(eqnn_silu(s0), rest),
               test_eps(1e-13, 1e-5));
    o.act = EQNN_DEGREE_GATE;
    eqnn_tensor *gate = eqnn_sigmoid(s), *part[9];
    part[0] = eqnn_silu(eqnn_slice(bare, 0, C));
    for (int k = 1; k < 9; k++)
        part[k] = eqnn_mul(eqnn_slice(bare, k * C, C), eqnn_slice(gate, k < 4 ? 0 : C, C));
    CHECK_SAME(eqnn_sphere_activation(x, 2, s, &o), eqnn_concat_n(part, 9), test_eps(1e-14, 1e-6));
}

static double mean_error(eqnn_tensor *a, eqnn_tensor *b)
{
    a = eqnn_as(a, NULL), b = eqnn_as(b, NULL);
    return sqrt(eqnn_value(eqnn_mse(a, b)) / eqnn_value(eqnn_mean(eqnn_square(b))));
}

/* Default grids: silu of random functions turns with them, up to 1e-5. */
TEST(sphere_defaults)
{
    eqnn_ctx *c = test_context();
    eqnn_sphere_opts o;
    memset(&o, 0, sizeof o);
    o.act = EQNN_S2;
    for (int lmax = 1; lmax <= 4; lmax++) {
        const eqnn_irreps *a = eqnn_irreps_uniform(c, 3, lmax);
        eqnn_tensor *x = eqnn_as(test_normal(c, 6, a->cols), a);
        double R[9], up[3] = { 0, 1, 0 };
        eqnn_rotation_random(c, eqnn_format(c, "R%d", lmax), 0, R);
        eqnn_tensor *y = eqnn_sphere_activation(eqnn_rotate(x, R), lmax, NULL, &o);
        CHECK_NEAR(mean_error(y, eqnn_rotate(eqnn_sphere_activation(x, lmax, NULL, &o), R)), 0,
                   2e-5);
        eqnn_rotation_axis(up, 0.4 * lmax, R); /* in a frame, rolls */
        eqnn_tensor *r = eqnn_stretch(eqnn_from_double(c, 1, 3, up), 6, 3);
        for (int mmax = 0; mmax <= lmax; mmax++) {
            eqnn_frame *f = eqnn_frame_make(r, lmax, mmax, NULL);
            eqnn_tensor *p = eqnn_to_frame(x, f, EQNN_EDGES);
            eqnn_tensor *q = eqnn_to_frame(eqnn_rotate(x, R), f, EQNN_EDGES);
            p = eqnn_from_frame(eqnn_sphere_activation(p, lmax, NULL, &o), f, a, EQNN_EDGES, 0);
            q = eqnn_from_frame(eqnn_sphere_activation(q, lmax, NULL, &o), f, a, EQNN_EDGES, 0);
            CHECK_NEAR(mean_error(q, eqnn_rotate(p, R)), 0, 2e-5);
        }
    }
    CHECK_OK(c);
}

/* Weights of the published models. Those of n blocks are linear in n, so one and two tell. */
TEST(v2_published_sizes)
{
    static const int models[3][3] = { { 4, 2, 8 }, { 6, 2, 12 }, { 6, 3, 20 } };
    static const double count[3] = { 31058690, 83164802, 153602690 };
    for (int i = 0; i < (test_eps(1, 0) > 0 ? 1 : 3); i++) { /* in double the first */
        double size[2];
        eqnn_equiformer_v2_opts o;
        memset(&o, 0, sizeof o);
        o.lmax = models[i][0], o.mmax = models[i][1];
        o.beta = o.points = 18;
        for (o.blocks = 1; o.blocks <= 2; o.blocks++) size[o.blocks - 1] = network_size(o);
        CHECK_NEAR(size[0] + (models[i][2] - 1) * (size[1] - size[0]), count[i], 0);
    }
}

TEST_MAIN
