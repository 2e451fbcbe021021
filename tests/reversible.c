/* reversible.c - trunks whose memory does not depend on depth (section 5 of eqnn.h) */
#include "test.h"

enum { NODES = 12 };

/* What the blocks know besides their arguments. */
typedef struct trunk {
    const eqnn_graph *g;
    int shared; /* all blocks use the same weights */
} trunk;

static const char features[] = "6x0e+3x1o";

static eqnn_tensor *begin(int block, eqnn_tensor *x, const char *name, const trunk *t)
{
    return eqnn_enter(x, eqnn_format(eqnn_context(x), "%s.%d", name, t->shared ? 0 : block));
}

/* Messages along the edges; x: stream, harmonics, lengths. */
static eqnn_tensor *talk(int block, eqnn_tensor *const *x, int n, void *user)
{
    const trunk *t = (const trunk *)user;
    eqnn_conv_opts o;
    memset(&o, 0, sizeof o);
    o.radial_neurons = 4;
    o.neighbours = 5;
    eqnn_tensor *s = begin(block, x[0], "talk", t);
    eqnn_tensor *y = n < 3 ? NULL
                           : eqnn_conv(s, NULL, x[1], eqnn_dropout(x[2], "drop", 0.3), t->g, "conv",
                                       eqnn_irreps_make(eqnn_context(s), features), &o);
    return eqnn_leave(eqnn_scale(y, 0.3));
}

/* A map of each node, whose scalars drop at random. */
static eqnn_tensor *think(int block, eqnn_tensor *const *x, int n, void *user)
{
    (void)n;
    eqnn_tensor *s = begin(block, x[0], "think", (const trunk *)user);
    eqnn_tensor *a = eqnn_dropout(eqnn_tanh(eqnn_slice(s, 0, 6)), "drop", 0.2);
    eqnn_tensor *y = eqnn_concat(a, eqnn_slice(s, 6, 9));
    return eqnn_leave(eqnn_scale(eqnn_irreps_linear(y, "mix", features, NULL), 0.3));
}

/* The definition, with everything on the tape. */
static eqnn_tensor *plain(int depth, eqnn_tensor *const *x, trunk *t)
{
    eqnn_tensor *a = x[0], *b = x[0], *in[3];
    memcpy(in, x, sizeof in);
    for (int i = 0; i < depth; i++) {
        in[0] = b;
        a = eqnn_add(a, talk(i, in, 3, t));
        in[0] = a;
        b = eqnn_add(b, think(i, in, 3, t));
    }
    return eqnn_scale(eqnn_add(a, b), 0.5);
}

typedef struct world {
    eqnn_ctx *c;
    trunk t;
    eqnn_tensor *h, *pos, *y;
} world;

/* Features of points, a trunk on them, and its result; the edges' arguments depend on positions. */
static world run(eqnn_ctx *c, int nodes, int depth, int reversible, int shared)
{
    world w;
    eqnn_tensor *x[3];
    w.c = c;
    w.h = eqnn_as(eqnn_normal(c, "h", nodes, 15), eqnn_irreps_make(c, features));
    w.pos = eqnn_as(eqnn_normal(c, "pos", nodes, 3), eqnn_irreps_make(c, "1x1o"));
    w.t.g = eqnn_knn_graph(w.pos, 5, NULL);
    w.t.shared = shared;
    eqnn_tensor *r = eqnn_edge_vectors(w.pos, w.t.g);
    x[0] = eqnn_irreps_linear(w.h, "in", features, NULL);
    x[1] = eqnn_spherical_harmonics(r, 1, NULL);
    x[2] = eqnn_radial_basis(eqnn_norm(r), 4, 5, NULL);
    w.y = reversible ? eqnn_reversible(talk, think, depth, x, 3, &w.t, sizeof w.t)
                     : plain(depth, x, &w.t);
    return w;
}

static eqnn_tensor *loss_of(const world *w)
{
    return eqnn_mean(eqnn_square(eqnn_as(w->y, NULL)));
}

static double gradient_error(eqnn_ctx *a, eqnn_ctx *b)
{
    double worst = 0;
    int n = eqnn_parameter_count(a);
    CHECK(n == eqnn_parameter_count(b) && n > 0);
    for (int i = 0; i < n; i++) {
        eqnn_tensor *w = eqnn_parameter(b, eqnn_parameter_name(a, i)), *da, *db;
        CHECK(w != NULL);
        da = eqnn_gradient(eqnn_parameter_at(a, i));
        db = eqnn_gradient(w);
        double size = eqnn_value(eqnn_max_rows(eqnn_transpose(eqnn_max_rows(eqnn_abs(db)))));
        worst = fmax(worst, test_difference(eqnn_scale(da, 1 / size), eqnn_scale(db, 1 / size)));
        CHECK(size > 0);
    }
    return worst;
}

/* eqnn_backward, with dropout, own and shared weights, and positions behind the extra arguments. */
TEST(gradients_of_the_plain_network)
{
    for (int shared = 0; shared < 2; shared++) {
        eqnn_ctx *c[2];
        world w[2];
        eqnn_tensor *slope[2];
        for (int k = 0; k < 2; k++) {
            c[k] = test_context();
            eqnn_training(c[k], 1);
            w[k] = run(c[k], NODES, 6, k, shared);
            CHECK(eqnn_backward(loss_of(&w[k])));
            slope[k] = eqnn_grad(loss_of(&w[k]), w[k].pos);
        }
        double gradient = gradient_error(c[1], c[0]);
        test_note("shared %d: gradient %.1e, slope %.1e", shared, gradient,
                  test_difference(slope[1], slope[0]));
        CHECK_SAME(w[1].y, w[0].y, test_eps(1e-13, 1e-5));
        CHECK_NEAR(gradient, 0, test_eps(1e-11, 1e-4));
        CHECK_SAME(slope[1], slope[0], test_eps(1e-11, 1e-4));
        CHECK(eqnn_value(eqnn_sum(eqnn_square(eqnn_as(slope[0], NULL)))) > 0);
        eqnn_reset(c[0]); /* other dropouts at the next step */
        world other = run(c[0], NODES, 6, 0, shared);
        CHECK(test_difference(other.y, run(c[1], NODES, 6, 1, shared).y) > 1e-3);
    }
}

/* A parameter before the trunk gets what arrives at positions and streams in eqnn_backward. */
TEST(what_lies_before_the_trunk)
{
    double first[2];
    for (int k = 0; k < 2; k++) {
        eqnn_ctx *c = test_context();
        eqnn_tensor *x[3], *s = eqnn_param(c, "stretch", 1, 1, NULL);
        trunk t;
        memset(&t, 0, sizeof t);
        x[0] = eqnn_as(eqnn_normal(c, "h", NODES, 15), eqnn_irreps_make(c, features));
        eqnn_tensor *pos = eqnn_as(eqnn_normal(c, "pos", NODES, 3), eqnn_irreps_make(c, "1x1o"));
        t.g = eqnn_knn_graph(pos, 4, NULL);
        eqnn_tensor *r = eqnn_edge_vectors(eqnn_mul(pos, s), t.g);
        x[1] = eqnn_spherical_harmonics(r, 1, NULL);
        x[2] = eqnn_radial_basis(eqnn_norm(r), 4, 5, NULL);
        eqnn_tensor *y = k ? eqnn_reversible(talk, think, 3, x, 3, &t, sizeof t) : plain(3, x, &t);
        CHECK(eqnn_backward(eqnn_mean(eqnn_square(eqnn_as(y, NULL)))));
        first[k] = eqnn_value(eqnn_gradient(s));
    }
    CHECK_NEAR(first[1], first[0], test_eps(1e-11, 1e-4));
    CHECK(first[0] != 0);
}

/* Forces in a loss: eqnn_grad is a checkpoint of the plain network and may be differentiated. */
TEST(second_order)
{
    eqnn_ctx *c[2];
    double loss[2];
    for (int k = 0; k < 2; k++) {
        c[k] = test_context();
        eqnn_training(c[k], 1);
        world w = run(c[k], NODES, 2, k, 0);
        eqnn_tensor *force = eqnn_grad(loss_of(&w), w.pos);
        eqnn_tensor *sum = eqnn_sum(eqnn_square(eqnn_as(force, NULL)));
        loss[k] = eqnn_value(sum);
        CHECK(eqnn_backward(sum));
    }
    CHECK_NEAR(loss[1], loss[0], test_eps(1e-12, 1e-4));
    CHECK_NEAR(gradient_error(c[1], c[0]), 0, test_eps(1e-11, 1e-3));
}

static eqnn_tensor *as_function(eqnn_tensor *const *x, int n, void *user)
{
    return eqnn_reversible(talk, think, 2, x, n, user, sizeof(trunk));
}

TEST(derivatives_and_symmetry)
{
    eqnn_ctx *c = test_context();
    trunk t;
    eqnn_tensor *x[3], *pos = test_features(c, NODES, "1x1o");
    memset(&t, 0, sizeof t);
    t.g = eqnn_knn_graph(pos, 3, NULL);
    x[0] = test_features(c, NODES, features);
    x[1] = test_features(c, t.g->edges, "1x0e+1x1o");
    x[2] = test_normal(c, t.g->edges, 4);
    CHECK_DERIVATIVES_OF(as_function, x, 3, &t, 2);
    CHECK_SYMMETRY(as_function, x, 3, &t);
}

/* Running statistics are filed once, not again when a block is run backwards; frozen weights and
   arguments that no block looks at do no harm; and the whole may stand in a checkpoint. */
static eqnn_tensor *normed(int block, eqnn_tensor *const *x, int n, void *user)
{
    eqnn_ctx *c = eqnn_context(x[0]);
    (void)n, (void)user;
    eqnn_tensor *y = eqnn_batch_norm(x[0], eqnn_format(c, "norm.%d", block), NULL);
    return eqnn_linear(y, eqnn_format(c, "mix.%d", block), 4, NULL);
}

static eqnn_tensor *inside(eqnn_tensor *const *x, int n, void *user)
{
    return eqnn_reversible(normed, normed, 3, x, n, user, 0);
}

TEST(updates_and_nesting)
{
    double mean[3], slope[3], slack[3], frozen[3];
    for (int way = 0; way < 3; way++) { /* plain; reversible; that in a checkpoint */
        eqnn_ctx *c = test_context();
        eqnn_tensor *x[2], *y;
        eqnn_training(c, 1);
        x[0] = eqnn_linear(eqnn_normal(c, "x", 9, 4), "in", 4, NULL);
        x[1] = eqnn_param(c, "unused", 2, 2, NULL);
        eqnn_freeze(c, "mix.1.*", 1);
        if (way == 0) {
            eqnn_tensor *a = x[0], *b = x[0];
            for (int i = 0; i < 3; i++) {
                a = eqnn_add(a, normed(i, &b, 1, NULL));
                b = eqnn_add(b, normed(i, &a, 1, NULL));
            }
            y = eqnn_scale(eqnn_add(a, b), 0.5);
        } else {
            y = way == 1 ? inside(x, 2, NULL) : eqnn_checkpoint(inside, x, 2, NULL, 0);
        }
        CHECK(eqnn_backward(eqnn_mean(eqnn_square(y))));
        eqnn_commit(c);
        mean[way] = eqnn_at(eqnn_parameter(c, "norm.2.running_mean"), 0, 1);
        slope[way] = eqnn_at(eqnn_gradient(eqnn_parameter(c, "in.weight")), 1, 2);
        slack[way] = eqnn_at(eqnn_gradient(x[1]), 1, 1);
        frozen[way] = eqnn_at(eqnn_gradient(eqnn_parameter(c, "mix.1.weight")), 1, 1);
    }
    for (int way = 1; way < 3; way++) {
        CHECK_NEAR(mean[way], mean[0], test_eps(1e-13, 1e-6));
        CHECK_NEAR(slope[way], slope[0], test_eps(1e-11, 1e-4));
        CHECK(slack[way] == 0 && frozen[way] == 0);
    }
    CHECK(mean[0] != 0 && slope[0] != 0);
}

/* The highest mark of the step's memory in a forward and backward pass, weights made before. */
static double highest(int depth, int reversible)
{
    eqnn_ctx *c = test_context();
    for (int pass = 0; pass < 2; pass++) {
        world w = run(c, 150, depth, reversible, 0);
        CHECK(eqnn_backward(loss_of(&w)));
        eqnn_reset(c);
    }
    return (double)eqnn_memory_use(c).step_peak;
}

/* All that grows is the list of weights, a pointer each; the plain network keeps every block. */
TEST(memory_is_independent_of_depth)
{
    const int depths[4] = { 2, 8, 32, 48 };
    double peak[2][4];
    for (int k = 0; k < 2; k++)
        for (int i = 0; i < 4; i++) peak[k][i] = highest(depths[i], k);
    for (int i = 0; i < 4; i++)
        test_note("depth %2d: %8.0f bytes plain, %8.0f reversible", depths[i], peak[0][i],
                  peak[1][i]);
    for (int i = 1; i < 4; i++) {
        double weights = 5 * (depths[i] - depths[0]);
        CHECK(peak[1][i] - peak[1][0] <= 2 * sizeof(void *) * weights + 256);
    }
    CHECK(peak[0][3] - peak[0][2] > 0.9 * (peak[0][2] - peak[0][1]) * 16 / 24);
    CHECK(peak[0][3] > 8 * peak[1][3]);
}

static eqnn_tensor *too_wide(int block, eqnn_tensor *const *x, int n, void *user)
{
    (void)block, (void)n, (void)user;
    return eqnn_concat(x[0], x[0]);
}

TEST(awkward_trunks)
{
    eqnn_ctx *c = test_context();
    trunk t;
    memset(&t, 0, sizeof t);
    eqnn_tensor *x = test_features(c, 3, features), *none = test_features(c, 0, features);
    CHECK_SAME(eqnn_reversible(think, think, 0, &x, 1, &t, sizeof t), x, 0);
    eqnn_tensor *dx = eqnn_grad(
        eqnn_sum(eqnn_as(eqnn_reversible(think, think, 0, &x, 1, &t, sizeof t), NULL)), x);
    CHECK_NEAR(eqnn_at(dx, 2, 3), 1, 1e-12);
    CHECK(eqnn_rows(eqnn_reversible(think, think, 3, &none, 1, &t, sizeof t)) == 0);
    CHECK_OK(c);
    CHECK(!eqnn_reversible(think, too_wide, 2, &x, 1, &t, sizeof t));
    CHECK_ERROR(c, "reversible: g of block 0 gave [3,30], the streams are [3,15]");
    CHECK(!eqnn_reversible(talk, think, 2, &x, 1, &t, sizeof t));
    CHECK_ERROR(c, "f of block 0 returned NULL");
    CHECK(!eqnn_reversible(think, NULL, 2, &x, 1, &t, sizeof t));
    CHECK_ERROR(c, "NULL");
    CHECK(!eqnn_reversible(think, think, -1, &x, 1, &t, sizeof t));
    CHECK_ERROR(c, "depth");
}

TEST_MAIN
