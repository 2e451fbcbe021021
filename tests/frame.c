/* frame.c - edge frames and the linear maps in them (section 11 of eqnn.h) */
#include "test.h"

enum { LMAX = 3 };

static eqnn_so2_opts so2_options(void)
{
    eqnn_so2_opts o;
    memset(&o, 0, sizeof o);
    return o;
}

/* Edges between few nodes, with one edge of each kind that could be special: along every axis in
   either direction, and closer and closer to -y and +y. */
enum { SPECIAL = 20 };
static eqnn_tensor *special_edges(eqnn_ctx *c)
{
    eqnn_real r[SPECIAL][3];
    memset(r, 0, sizeof r);
    for (int i = 0; i < 6; i++) r[i][i / 2] = (eqnn_real)(i % 2 ? -1.5 : 0.7);
    for (int i = 0; i < 14; i++) {
        double angle = pow(10, -2 - i / 2);
        r[6 + i][0] = (eqnn_real)(sin(angle) * 0.6);
        r[6 + i][1] = (eqnn_real)(cos(angle) * (i % 2 ? -1 : 1));
        r[6 + i][2] = (eqnn_real)(sin(angle) * 0.8);
    }
    return eqnn_from(c, SPECIAL, 3, &r[0][0]);
}

static eqnn_tensor *turned(eqnn_tensor *x, const double R[9])
{
    eqnn_ctx *c = eqnn_context(x);
    eqnn_tensor *M = eqnn_from_double(c, 3, 3, R);
    return eqnn_label_of(x) ? eqnn_rotate(x, R) : eqnn_matmul_t(x, M, 0, 1);
}

/* The frame has the axis where it belongs: only m = 0 of the harmonics of r is left. */
TEST(frame_turns_the_edge_to_y)
{
    eqnn_ctx *c = test_context();
    eqnn_harmonics_opts h;
    memset(&h, 0, sizeof h);
    h.normalize = 1;
    for (int random = 0; random < 2; random++) {
        eqnn_tensor *r = random ? test_normal(c, 50, 3) : special_edges(c);
        eqnn_tensor *Y = eqnn_spherical_harmonics(r, 8, &h);
        eqnn_tensor *y = eqnn_to_frame(Y, eqnn_frame_make(r, 8, 8, NULL), EQNN_EDGES);
        double worst = 0;
        for (int e = 0; e < eqnn_rows(y); e++)
            for (int k = 0; k < 81; k++)
                worst = fmax(worst, fabs(eqnn_at(y, e, k) - (k < 9 ? sqrt(2 * k + 1) : 0)));
        test_note("harmonics in the frame: %.1e", worst);
        CHECK_NEAR(worst, 0, test_eps(1e-13, 4e-6));
    }
    CHECK_OK(c);
}

/* Into the frame and back nothing is lost, unless orders are. */
TEST(frame_and_back)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *r = special_edges(c);
    eqnn_tensor *x = test_features(c, SPECIAL, "5x0e+3x2e+2x1o+1x8e+2x2o+0x3e");
    eqnn_frame *f = eqnn_frame_make(r, 8, 8, NULL), *short_ = eqnn_frame_make(r, 8, 1, NULL);
    eqnn_tensor *y = eqnn_to_frame(x, f, EQNN_EDGES);
    CHECK_TEXT(eqnn_label_of(y)->name, "13x0e+8xm1+6xm2+1xm3+1xm4+1xm5+1xm6+1xm7+1xm8");
    CHECK_SAME(eqnn_from_frame(y, f, eqnn_label_of(x), EQNN_EDGES, 0), x, test_eps(1e-14, 1e-6));
    eqnn_tensor *once = eqnn_from_frame(eqnn_to_frame(x, short_, EQNN_EDGES), short_,
                                        eqnn_label_of(x), EQNN_EDGES, 0);
    eqnn_tensor *twice = eqnn_from_frame(eqnn_to_frame(once, short_, EQNN_EDGES), short_,
                                         eqnn_label_of(x), EQNN_EDGES, 0);
    CHECK_SAME(twice, once, test_eps(1e-14, 1e-6)); /* a projection */
    CHECK(test_difference(once, x) > 0.1);
    eqnn_tensor *big = eqnn_from_frame(eqnn_to_frame(x, short_, EQNN_EDGES), short_,
                                       eqnn_label_of(x), EQNN_EDGES, 1);
    CHECK_NEAR(eqnn_at(big, 3, 5), eqnn_at(once, 3, 5) * sqrt(5.0 / 3), test_eps(1e-12, 1e-5));
    CHECK_NEAR(eqnn_at(big, 3, 20), eqnn_at(once, 3, 20), test_eps(1e-12, 1e-5));
    CHECK_OK(c);
}

/* Source and target features, a non-linear layer in the frame, a sum at the targets. */
typedef struct net {
    const eqnn_graph *g;
    int lmax, mmax, real;
    const char *out;
} net;

static eqnn_tensor *layer(eqnn_tensor *const *x, int n, void *user)
{
    const net *t = (const net *)user;
    eqnn_ctx *c = eqnn_context(x[0]);
    const eqnn_irreps *mid = eqnn_irreps_uniform(c, 4, t->lmax);
    eqnn_frame_opts fo;
    eqnn_so2_opts o = so2_options();
    memset(&fo, 0, sizeof fo);
    fo.graph = t->g;
    o.real = t->real;
    eqnn_tensor *r = n > 1 ? x[1] : NULL;
    eqnn_frame *f = eqnn_frame_make(r, t->lmax, t->mmax, &fo);
    eqnn_tensor *a = eqnn_to_frame(x[0], f, EQNN_SOURCES);
    eqnn_tensor *h = eqnn_concat(a, eqnn_to_frame(x[0], f, EQNN_TARGETS));
    int factors = 0;
    for (int m = 0; m <= t->mmax; m++) factors += 2 * (t->lmax + 1 - m) * 3;
    o.radial = eqnn_mul(eqnn_norm(r), eqnn_normal(c, "factors", 1, factors));
    o.degrees = t->lmax + 1;
    o.extra = 2;
    h = eqnn_so2_linear(h, "so2a", mid, &o);
    int copies = eqnn_label_of(h) ? eqnn_label_of(h)->copies : 0;
    h = eqnn_scale_copies(h, eqnn_linear(eqnn_tanh(eqnn_slice(h, 0, 2)), "gate", copies, NULL));
    o = so2_options();
    o.real = t->real;
    const eqnn_irreps *out = eqnn_irreps_make(c, t->out);
    h = eqnn_so2_linear(h, "so2b", out, &o);
    return eqnn_from_frame(h, f, out, EQNN_TARGETS, 1);
}

static const eqnn_graph *small_graph(eqnn_ctx *c)
{
    static const int source[8] = {0, 1, 2, 3, 0, 1, 0, 2}, target[8] = {1, 0, 0, 0, 2, 2, 3, 3};
    eqnn_graph_opts o;
    memset(&o, 0, sizeof o);
    o.targets = 4;
    return eqnn_graph_make(c, 8, source, target, &o);
}

/* Rotations only: mixing +m with -m gives up reflections. */
static double rotation_error(eqnn_tensor *x, eqnn_tensor *r, net *t, double size)
{
    eqnn_ctx *c = eqnn_context(x);
    double worst = 0;
    for (int k = 0; k < 4; k++) {
        double R[9];
        eqnn_rotation_random(c, eqnn_format(c, "turn%d", k), 0, R);
        eqnn_tensor *in[2] = {x, r}, *in2[2] = {turned(x, R), turned(r, R)};
        eqnn_tensor *y = layer(in, 2, t), *y2 = layer(in2, 2, t);
        worst = fmax(worst, test_difference(y2, eqnn_rotate(y, R)));
    }
    test_note("rotation error %.1e (%g)", worst, size);
    return worst;
}

TEST(frame_layer_turns)
{
    eqnn_ctx *c = test_context();
    net t = {NULL, LMAX, 2, 0, "2x0e+3x1o+1x2e+2x3o"};
    t.g = small_graph(c);
    eqnn_tensor *x = eqnn_as(test_normal(c, 4, 3 * 16), eqnn_irreps_uniform(c, 3, LMAX));
    for (t.mmax = 0; t.mmax <= LMAX; t.mmax++) {
        eqnn_tensor *r = test_normal(c, 8, 3);
        eqnn_tensor *e = eqnn_enter(r, eqnn_format(c, "m%d", t.mmax));
        CHECK_NEAR(rotation_error(x, e, &t, t.mmax), 0, test_eps(1e-13, 4e-6));
        eqnn_leave(e);
    }
    CHECK_OK(c);
}

/* With W_i = 0 only natural parities are coupled, and reflections are a symmetry too. */
TEST(frame_layer_without_imaginary_part_reflects)
{
    eqnn_ctx *c = test_context();
    net t = {NULL, LMAX, LMAX, 1, "2x0e+3x1o+1x2e+2x3o"};
    t.g = small_graph(c);
    eqnn_tensor *x[2];
    x[0] = eqnn_as(test_normal(c, 4, 3 * 16), eqnn_irreps_uniform(c, 3, LMAX));
    x[1] = eqnn_as(test_normal(c, 8, 3), eqnn_irreps_make(c, "1x1o"));
    CHECK_SYMMETRY(layer, x, 2, &t);
    t.real = 0; /* and with it they are not */
    eqnn_tensor *e = eqnn_enter(x[0], "other");
    x[0] = e;
    CHECK(eqnn_check_equivariance(layer, x, 2, &t, 4, NULL) > 1e-2);
    eqnn_leave(e);
    CHECK_OK(c);
}

static void set_row(double *r, double x, double y, double z) { r[0] = x, r[1] = y, r[2] = z; }

/* Edges along axes, beside +-y; each is turned by a rotation that takes it to the next of them. */
TEST(frame_layer_turns_at_the_poles)
{
    eqnn_ctx *c = test_context();
    net t = {NULL, LMAX, LMAX, 0, "2x0e+3x1o+1x2e+2x3o"};
    int source[SPECIAL], target[SPECIAL];
    for (int i = 0; i < SPECIAL; i++) source[i] = i, target[i] = (i + 1) % SPECIAL;
    eqnn_graph_opts go;
    memset(&go, 0, sizeof go);
    go.targets = SPECIAL;
    t.g = eqnn_graph_make(c, SPECIAL, source, target, &go);
    eqnn_tensor *x = eqnn_as(test_normal(c, SPECIAL, 48), eqnn_irreps_uniform(c, 3, LMAX));
    eqnn_tensor *r = special_edges(c);
    CHECK_NEAR(rotation_error(x, r, &t, 0), 0, test_eps(1e-13, 4e-6));
    for (int k = 0; k < 12; k++) { /* quarter turns, and tiny ones beside them */
        double axis[3], R[9];
        set_row(axis, k % 3 == 0, k % 3 == 1, k % 3 == 2);
        eqnn_rotation_axis(axis, k < 3 ? acos(-1) / 2 : k < 6 ? acos(-1) : pow(10, -k / 2), R);
        eqnn_tensor *in[2] = {x, r}, *in2[2] = {turned(x, R), turned(r, R)};
        CHECK_SAME(layer(in2, 2, &t), eqnn_rotate(layer(in, 2, &t), R), test_eps(1e-13, 4e-6));
    }
    CHECK_OK(c);
}

/* Derivatives by the edge vectors, which the torque gives, beside differences; of a function that
   is not linear, so that the second derivative has every term. */
static eqnn_tensor *energy(eqnn_tensor *const *x, int n, void *user)
{
    eqnn_tensor *y = layer(x, n, user);
    return eqnn_sum_cols(eqnn_sin(eqnn_square_copies(y)));
}

TEST(frame_derivatives)
{
    eqnn_ctx *c = test_context();
    net t = {NULL, 2, 2, 0, "2x0e+1x1o+1x2e"};
    t.g = small_graph(c);
    double r[8][3] = {{0}};
    for (int i = 0; i < 8; i++) /* among them +-y, an axis, and one beside -y */
        set_row(r[i], i < 5 ? 0.3 * i - 0.5 : 0, i == 5 ? -0.9 : i == 6 ? 1.1 : 0.4 * i - 1,
                i < 5 ? 0.6 - 0.2 * i * i : i == 7 ? 1e-4 : 0);
    eqnn_tensor *x[2];
    x[0] = eqnn_as(eqnn_scale(test_normal(c, 4, 27), 0.5), eqnn_irreps_uniform(c, 3, 2));
    x[1] = eqnn_from_double(c, 8, 3, &r[0][0]);
    for (t.mmax = 0; t.mmax <= 2; t.mmax++) {
        eqnn_tensor *e = eqnn_enter(x[1], eqnn_format(c, "m%d", t.mmax));
        eqnn_tensor *in[2] = {x[0], e};
        CHECK_DERIVATIVES_OF(energy, in, 2, &t, 1);
        CHECK_DERIVATIVES_OF(energy, in, 2, &t, 2);
        eqnn_leave(e);
    }
    CHECK_OK(c);
}

/* Coincident nodes: only degree 0 passes, symmetry holds exactly, derivatives are finite. */
TEST(frame_of_no_direction)
{
    eqnn_ctx *c = test_context();
    net t = {NULL, LMAX, LMAX, 0, "2x0e+3x1o+1x2e+2x3o"};
    t.g = small_graph(c);
    double r[8][3] = {{0}};
    for (int i = 0; i < 4; i++) set_row(r[i], 0.3 * i - 0.5, 0.2, 1);
    eqnn_tensor *x = eqnn_as(test_normal(c, 4, 48), eqnn_irreps_uniform(c, 3, LMAX));
    eqnn_tensor *v = eqnn_from_double(c, 8, 3, &r[0][0]), *in[2] = {x, v}, *dx[2], *ddx[2];
    CHECK_NEAR(rotation_error(x, v, &t, 0), 0, test_eps(1e-13, 4e-6));
    eqnn_tensor *none = eqnn_zeros(c, 4, 3);
    eqnn_tensor *y = eqnn_to_frame(x, eqnn_frame_make(none, LMAX, LMAX, NULL), EQNN_EDGES);
    for (int k = 0; k < 48; k++) CHECK_NEAR(eqnn_at(y, 0, k), k < 3 ? eqnn_at(x, 0, k) : 0, 0);
    CHECK(eqnn_grads(eqnn_sum(energy(in, 2, &t)), in, 2, dx) && test_finite(dx[1]));
    CHECK(eqnn_grads(eqnn_sum(eqnn_square(dx[1])), in, 2, ddx) && test_finite(ddx[1]) &&
          test_finite(ddx[0]));
    CHECK_OK(c);
}

/* The whole layer is a dense product: numbers, and weights both ways. */
TEST(frame_layer_is_a_tensor_product)
{
    eqnn_ctx *c = test_context();
    int block[3][10][3];
    for (int l = 0; l < 10; l++)
        for (int k = 0; k < 3; k++)
            block[k][l][0] = k == 0 ? 2 + l % 2 : k == 1 ? 1 : 3 - l % 3, block[k][l][1] = l,
            block[k][l][2] = 1;
    const eqnn_irreps *in = eqnn_irreps_blocks(c, (const int (*)[3])block[0], 4);
    const eqnn_irreps *sh = eqnn_irreps_blocks(c, (const int (*)[3])block[1], 6);
    const eqnn_irreps *out = eqnn_irreps_blocks(c, (const int (*)[3])block[2], 3);
    const eqnn_product *p = eqnn_product_full(c, in, sh, out, NULL);
    eqnn_harmonics_opts h;
    memset(&h, 0, sizeof h);
    h.normalize = 1;
    eqnn_tensor *r = test_normal(c, 7, 3);
    eqnn_tensor *x = eqnn_as(test_normal(c, 7, in->cols), in);
    eqnn_tensor *Y = eqnn_as(eqnn_spherical_harmonics(r, 5, &h), sh);
    for (int mmax = 0; mmax <= 3; mmax++) {
        const char *name = eqnn_format(c, "so2_%d", mmax);
        eqnn_frame *f = eqnn_frame_make(r, 3, mmax, NULL);
        eqnn_tensor *y = eqnn_to_frame(x, f, EQNN_EDGES);
        eqnn_tensor *ours = eqnn_from_frame(eqnn_so2_linear(y, name, out, NULL), f, out,
                                            EQNN_EDGES, 0);
        eqnn_tensor *w = eqnn_so2_to_product(c, name, p);
        eqnn_tensor *dense = eqnn_tensor_product(x, Y, w, p); /* biases are zero at first */
        CHECK_SAME(ours, dense, test_eps(1e-12, 2e-5));
        if (mmax < 2) continue;
        eqnn_tensor *w2 = test_normal(c, 1, eqnn_product_weights(p)); /* and from dense weights */
        CHECK(eqnn_so2_from_product(c, name, p, w2));
        ours = eqnn_from_frame(eqnn_so2_linear(y, name, out, NULL), f, out, EQNN_EDGES, 0);
        CHECK_SAME(ours, eqnn_tensor_product(x, Y, w2, p), test_eps(1e-12, 2e-5));
    }
    CHECK(!eqnn_so2_to_product(c, "nothing", p));
    CHECK_ERROR(c, "nothing.fc_m0.weight");
}

/* Several features side by side: the weights take them by degree, as those of one wider feature. */
TEST(frame_inputs_side_by_side)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *r = test_normal(c, 5, 3);
    const eqnn_irreps *one = eqnn_irreps_uniform(c, 2, 2), *both = eqnn_irreps_uniform(c, 4, 2);
    eqnn_tensor *wide = eqnn_as(test_normal(c, 5, 36), both), *a = NULL, *b = NULL;
    eqnn_frame *f = eqnn_frame_make(r, 2, 2, NULL);
    for (int k = 0; k < 9; k++) {
        eqnn_tensor *x = eqnn_as(wide, NULL), *p = eqnn_slice(x, 4 * k, 2);
        eqnn_tensor *q = eqnn_slice(x, 4 * k + 2, 2);
        a = a ? eqnn_concat(a, p) : p;
        b = b ? eqnn_concat(b, q) : q;
    }
    eqnn_so2_opts o = so2_options();
    o.radial = test_normal(c, 5, 4 * (3 + 2 + 1));
    eqnn_tensor *y = eqnn_so2_linear(eqnn_to_frame(wide, f, EQNN_EDGES), "so2", one, &o);
    o.degrees = 3;
    eqnn_tensor *side = eqnn_concat(eqnn_to_frame(eqnn_as(a, one), f, EQNN_EDGES),
                                    eqnn_to_frame(eqnn_as(b, one), f, EQNN_EDGES));
    CHECK_SAME(eqnn_so2_linear(side, "so2", one, &o), y, test_eps(1e-13, 1e-5));
    o.degrees = 2;
    CHECK(!eqnn_so2_linear(side, "so2", one, &o));
    CHECK_ERROR(c, "side by side");
}

/* What does not commute with rolls is refused; order 0 is invariant. */
TEST(frame_labels)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *r = test_normal(c, 5, 3);
    eqnn_tensor *x = eqnn_as(test_normal(c, 5, 27), eqnn_irreps_uniform(c, 3, 2));
    eqnn_frame *f = eqnn_frame_make(r, 2, 2, NULL), *f0 = eqnn_frame_make(r, 2, 0, NULL);
    eqnn_tensor *y = eqnn_to_frame(x, f, EQNN_EDGES);
    CHECK(!eqnn_silu(y));
    CHECK_ERROR(c, "not invariant");
    CHECK(!eqnn_linear(y, "linear", 4, NULL));
    CHECK_ERROR(c, "linear");
    CHECK(!eqnn_shift(y, 1));
    CHECK_ERROR(c, "shift");
    CHECK(!eqnn_mul(y, y));
    CHECK_ERROR(c, "symmetry");
    CHECK(!eqnn_add(y, eqnn_slice(y, 0, 9)));
    CHECK_ERROR(c, "do not fit");
    CHECK(!eqnn_slice(y, 0, 12));
    CHECK_ERROR(c, "cut through");
    CHECK(!eqnn_irreps_linear(y, "linear", "1x0e", NULL));
    CHECK_ERROR(c, "no irreps");
    CHECK(!eqnn_to_frame(y, f, EQNN_EDGES));
    CHECK_ERROR(c, "no irreps");
    CHECK(!eqnn_so2_linear(x, "so2", eqnn_irreps_uniform(c, 3, 2), NULL));
    CHECK_ERROR(c, "not in an edge frame");
    CHECK(!eqnn_so2_linear(y, "so2", NULL, NULL));
    CHECK_ERROR(c, "irreps are missing");
    CHECK(!eqnn_from_frame(y, f, eqnn_irreps_uniform(c, 2, 2), EQNN_EDGES, 0));
    CHECK_ERROR(c, "need");
    CHECK(!eqnn_to_frame(x, f, EQNN_SOURCES));
    CHECK_ERROR(c, "graph");
    CHECK(!eqnn_frame_make(r, 2, -1, NULL));
    CHECK_ERROR(c, "orders up to -1");
    CHECK(!eqnn_to_frame(eqnn_as(test_normal(c, 5, 48), eqnn_irreps_uniform(c, 3, 3)), f,
                         EQNN_EDGES));
    CHECK_ERROR(c, "degrees up to 2");
    CHECK(eqnn_silu(eqnn_slice(y, 0, 9)) != NULL);
    CHECK(eqnn_silu(eqnn_to_frame(x, f0, EQNN_EDGES)) != NULL);
    CHECK(eqnn_add(y, eqnn_scale(y, 2)) != NULL);
    CHECK(eqnn_mul(y, eqnn_norm(r)) != NULL);
    CHECK(eqnn_dropout(eqnn_slice(y, 0, 9), "drop", 0.5) != NULL);
    CHECK_OK(c);
}

/* Given frames: any rotation that turns the edge to y will do, and nothing but a rotation. */
TEST(frame_of_given_rotations)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *x = test_features(c, 3, "2x0e+2x1e+1x2e");
    double R[27], kept[9], along[9];
    for (int e = 0; e < 3; e++) { /* R r = |r| y of an edge along R's second row */
        eqnn_rotation_random(c, eqnn_format(c, "R%d", e), 0, R + 9 * e);
        for (int k = 0; k < 3; k++) along[3 * e + k] = 2 * R[9 * e + 3 + k];
    }
    eqnn_tensor *r = eqnn_from_double(c, 3, 3, along);
    eqnn_frame_opts o = { .rotations = R };
    eqnn_tensor *y[2];
    for (int k = 0; k < 2; k++) {
        eqnn_frame *f = eqnn_frame_make(r, 2, 2, k ? &o : NULL);
        y[k] = eqnn_so2_linear(eqnn_to_frame(x, f, EQNN_EDGES), "so2", eqnn_label_of(x), NULL);
        y[k] = eqnn_from_frame(y[k], f, eqnn_label_of(x), EQNN_EDGES, 0);
    }
    CHECK_SAME(y[1], y[0], test_eps(1e-13, 1e-5));
    eqnn_so2_opts bare = { .no_bias = 1 };
    CHECK(eqnn_so2_linear(eqnn_to_frame(x, eqnn_frame_make(r, 2, 2, &o), EQNN_EDGES), "bare",
                          eqnn_label_of(x), &bare) != NULL);
    CHECK(eqnn_parameter(c, "so2.fc_m0.bias") && !eqnn_parameter(c, "bare.fc_m0.bias"));
    for (int way = 0; way < 3; way++) {
        memcpy(kept, R + 9, sizeof kept);
        for (int k = 0; k < 9; k++) R[9 + k] = way == 0 ? -kept[k] : way == 1 ? 2 * kept[k] : NAN;
        CHECK(!eqnn_frame_make(r, 2, 2, &o));
        CHECK_ERROR(c, "frame_make: what is given for edge 1 is no rotation");
        memcpy(R + 9, kept, sizeof kept);
    }
}

TEST(frame_of_no_edges)
{
    eqnn_ctx *c = test_context();
    net t = {NULL, 2, 2, 0, "2x0e+1x1o"};
    eqnn_graph_opts go;
    memset(&go, 0, sizeof go);
    go.sources = go.targets = 3;
    t.g = eqnn_graph_make(c, 0, NULL, NULL, &go);
    eqnn_tensor *x[2], *dx[2];
    x[0] = eqnn_as(test_normal(c, 3, 27), eqnn_irreps_uniform(c, 3, 2));
    x[1] = eqnn_zeros(c, 0, 3);
    eqnn_tensor *y = layer(x, 2, &t);
    CHECK_SAME(y, eqnn_zeros(c, 3, 5), 0);
    CHECK(eqnn_grads(eqnn_sum(energy(x, 2, &t)), x, 2, dx) && test_finite(dx[0]));
    CHECK_OK(c);
}

TEST_MAIN
