/* emlp.c - layers between representations: equivariance for many groups, derivatives, files */
#include "../eqnn_groups.h"
#include "memory.h"
#include <stdio.h>

/* A file of this program's own. */
static const char *path_of(const char *name)
{
    static char path[512];
    const char *folder = getenv("TMPDIR");
    snprintf(path, sizeof path, "%.400s/eqnn_emlp_%d_%p_%s", folder ? folder : "/tmp",
             (int)sizeof(eqnn_real), (void *)&test_first, name);
    return path;
}

typedef struct layer_case {
    const char *group, *in, *out;
    int what; /* 0 linear, 1 projected, 2 bilinear, 3 gate, 4 block, 5 whole network */
} layer_case;

/* x in the label's order in, the layer's result out */
static eqnn_tensor *layer(eqnn_tensor *const *x, int n, void *user)
{
    const layer_case *k = (const layer_case *)user;
    eqnn_ctx *c = eqnn_context(x[0]);
    const eqnn_group *g = *k->group ? eqnn_group_make(c, k->group) : NULL;
    const eqnn_rep *in = eqnn_rep_make(c, k->in, g), *out = eqnn_rep_make(c, k->out, g);
    eqnn_rep_linear_opts projected;
    eqnn_emlp_opts o;
    (void)n;
    memset(&projected, 0, sizeof projected);
    memset(&o, 0, sizeof o);
    projected.projected = 1;
    o.channels = 32;
    o.layers = 2;
    switch (k->what) {
    case 0: return eqnn_rep_linear(x[0], "linear", eqnn_rep_label(out), NULL);
    case 1: return eqnn_rep_linear(x[0], "linear", eqnn_rep_label(out), &projected);
    case 2: return eqnn_rep_bilinear(x[0], "bilinear", eqnn_rep_label(out), NULL);
    case 3: return eqnn_rep_gate(x[0], eqnn_rep_label(out));
    case 4: return eqnn_emlp_block(x[0], "block", eqnn_rep_label(out), NULL);
    default: break;
    }
    eqnn_tensor *y = eqnn_emlp(eqnn_to_rep(x[0], in), "net", in, out, g, &o);
    return eqnn_from_rep(y, out);
}

static eqnn_tensor *input_of(eqnn_ctx *c, const layer_case *k, int rows)
{
    const eqnn_group *g = *k->group ? eqnn_group_make(c, k->group) : NULL;
    const eqnn_label *in = eqnn_rep_label(eqnn_rep_make(c, k->in, g));
    if (k->what == 3) in = eqnn_rep_gated(c, in);
    return in ? eqnn_as(test_normal(c, rows, in->cols), in) : NULL;
}

static const layer_case cases[] = {
    { "SO(3)", "2*Scalar+3*V+V**2", "Scalar+2*V+2*V**2", 0 },
    { "SO(3)", "2*Scalar+3*V+V**2", "Scalar+2*V+2*V**2", 1 },
    { "SO(3)", "2*Scalar+3*V+V**2", "3*Scalar+2*V+2*V**2", 2 },
    { "SO(3)", "2*Scalar+3*V+V**2", "2*Scalar+3*V+V**2", 3 },
    { "SO(3)", "2*Scalar+3*V+V**2", "2*V+V**2", 4 },
    { "O(3)", "5*Scalar+5*V", "T(2)", 5 },
    { "O(5)", "2*V", "Scalar", 5 },
    { "S(4)", "Scalar+2*V", "2*Scalar+V+V**2", 4 },
    { "S(4)", "2*V**2", "V", 5 },
    { "Z(4)", "2*V", "V+Scalar", 5 },
    { "D(4)", "2*V", "V+V**2", 5 },
    { "Cube", "2*V", "V", 5 },
    { "SO2eR3", "4*V", "4*V", 5 },
    { "O2eR3", "4*V", "Scalar", 5 },
    { "Sp(2)", "2*V+V.T", "V", 5 },
    { "SL(3)", "2*V+V.T", "V.T", 5 },
    { "SO(3)xS(3)", "2*V", "V", 5 },
    { "Real(SU(2))", "2*V", "V", 5 },
    { "SO13p", "3*V", "2*Scalar+2*V+V.T", 4 },
    { "Lorentz", "4*T(1)+2*T(0)", "3*T(0)", 5 },
    { "Lorentz", "4*V", "V", 5 },
    { "", "2*V(Z(3))*V(S(4))+V(O(3))", "V(Z(3))*V(S(4))+2*V(O(3))**2", 4 },
    { "O(2)", "P+2*V", "P*V+Scalar", 4 },
    { "SO(3)xS(5)", "V(S(5))+V(SO(3))*V(S(5))", "V(SO(3))", 5 },
    { "S(3)xSO13pxZ(2)", "V(Z(2))*V(SO13p)", "V(SO13p).T+Scalar", 5 },
};

/* A compact group's matrices have entries below one; boosts have larger ones, which multiply the
   rounding errors. */
TEST(equivariance)
{
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        eqnn_ctx *c = test_context();
        layer_case k = cases[i];
        eqnn_tensor *x = input_of(c, &k, 7);
        int boosts = !strncmp(k.group, "SO13", 4) || !strncmp(k.group, "Lorentz", 7) ||
                     !strncmp(k.group, "S", 1);
        double error = eqnn_rep_check(layer, &x, 1, &k, 5, NULL);
        eqnn_tensor *y = layer(&x, 1, &k);
        test_note("%s: %s -> %s, layer %d: %.1e", k.group, k.in, k.out, k.what, error);
        CHECK(eqnn_rows(y) == 7);
        CHECK(eqnn_value(eqnn_sum(eqnn_square(eqnn_as(y, NULL)))) > 0);
        CHECK_NEAR(error, 0, boosts ? test_eps(1e-9, 1e-3) : test_eps(1e-11, 1e-5));
        CHECK_OK(c);
    }
}

TEST(derivatives)
{
    static const layer_case some[] = {
        { "O(3)", "Scalar+2*V", "V**2+V", 4 },
        { "S(3)", "V+V**2", "V", 4 },
        { "SO(2)", "2*V", "V+Scalar", 5 },
        { "SO13p", "2*V", "V.T+Scalar", 4 },
    };
    for (size_t i = 0; i < sizeof some / sizeof some[0]; i++) {
        eqnn_ctx *c = test_context();
        layer_case k = some[i];
        eqnn_tensor *x = input_of(c, &k, 3);
        CHECK_DERIVATIVES_OF(layer, &x, 1, &k, 2);
        CHECK_OK(c);
    }
}

/* A projected weight made of coefficients is the weight of those coefficients. */
TEST(projection_is_onto_the_same_maps)
{
    eqnn_ctx *c = test_context();
    layer_case k = { "O(3)", "2*Scalar+V+V**2", "Scalar+V+V**2", 0 };
    eqnn_tensor *x = input_of(c, &k, 4), *y = layer(&x, 1, &k), *identity, *W;
    const eqnn_label *in = eqnn_label_of(x);
    double *eye = (double *)calloc((size_t)in->cols * (size_t)in->cols, sizeof *eye);
    for (int i = 0; i < in->cols; i++) eye[i * in->cols + i] = 1;
    identity = eqnn_as(eqnn_from_double(c, in->cols, in->cols, eye), in);
    eqnn_tensor *zero = eqnn_as(eqnn_zeros(c, 1, in->cols), in);
    eqnn_tensor *bias = eqnn_as(layer(&zero, 1, &k), NULL);
    W = eqnn_transpose(eqnn_sub(eqnn_as(layer(&identity, 1, &k), NULL), bias));
    double *w = (double *)malloc(sizeof *w * (size_t)eqnn_rows(W) * (size_t)eqnn_cols(W));
    double *b = (double *)malloc(sizeof *b * (size_t)eqnn_cols(bias));
    for (int i = 0; i < eqnn_rows(W) * eqnn_cols(W); i++)
        w[i] = eqnn_at(W, i / eqnn_cols(W), i % eqnn_cols(W));
    for (int i = 0; i < eqnn_cols(bias); i++) b[i] = eqnn_at(bias, 0, i);
    eqnn_ctx *d = test_context();
    layer_case p = k;
    p.what = 1;
    const eqnn_group *g = eqnn_group_make(d, p.group);
    eqnn_tensor *z = eqnn_as(eqnn_from(d, 4, in->cols, eqnn_data(x)),
                             eqnn_rep_label(eqnn_rep_make(d, p.in, g)));
    layer(&z, 1, &p);
    CHECK(eqnn_set(eqnn_parameter(d, "linear.weight"), w));
    CHECK(eqnn_set(eqnn_parameter(d, "linear.bias"), b));
    z = layer(&z, 1, &p);
    for (int r = 0; r < 4; r++)
        for (int j = 0; j < eqnn_cols(y); j++)
            CHECK_NEAR(eqnn_at(z, r, j), eqnn_at(y, r, j), test_eps(1e-12, 2e-5));
    CHECK_OK(c);
    CHECK_OK(d);
    free(eye);
    free(w);
    free(b);
}

/* W and b are made once a step however often the layer is called; gradients of all calls arrive. */
TEST(weights_made_once)
{
    eqnn_ctx *c = test_context();
    layer_case k = { "O(3)", "2*Scalar+3*V+V**2", "Scalar+2*V", 0 };
    double gradient[2] = { 0, 0 };
    for (int calls = 1; calls <= 2; calls++) {
        double one[20];
        for (int i = 0; i < 20; i++) one[i] = 0.1 * (i - 7);
        const eqnn_rep *in = eqnn_rep_make(c, k.in, eqnn_group_make(c, k.group));
        eqnn_tensor *x = eqnn_as(eqnn_from_double(c, 1, 20, one), eqnn_rep_label(in));
        eqnn_tensor *y = eqnn_as(layer(&x, 1, &k), NULL);
        size_t first = eqnn_memory_use(c).tape_nodes;
        if (calls == 2) y = eqnn_add(y, eqnn_as(layer(&x, 1, &k), NULL));
        size_t second = eqnn_memory_use(c).tape_nodes - first;
        test_note("nodes of the first call %zu, of a second %zu", first, second);
        CHECK(second < first / 3); /* a product and sums, no weights */
        eqnn_backward(eqnn_sum(y));
        gradient[calls - 1] = eqnn_gradient_norm(c);
        eqnn_zero_gradients(c);
        eqnn_reset(c);
    }
    CHECK(gradient[0] > 0);
    CHECK_NEAR(gradient[1], 2 * gradient[0], 1e-5 * gradient[0]);
    CHECK_OK(c);
}

/* Sizes of the papers' networks: basis dimensions of their layers. */
TEST(parameter_counts)
{
    static const struct { const char *group, *in, *out; size_t first, hidden; } published[] = {
        { "O(3)", "5*Scalar+5*V", "T(2)", 1020, 20338 },
        { "SO(3)", "5*Scalar+5*V", "T(2)", 1090, 22238 },
        { "O(5)", "2*V", "Scalar", 50, 24166 },
    };
    for (int i = 0; i < 3; i++) {
        eqnn_ctx *c = test_context();
        const eqnn_group *g = eqnn_group_make(c, published[i].group);
        const eqnn_rep *in = eqnn_rep_make(c, published[i].in, g),
                       *hidden = eqnn_rep_uniform(g, 384);
        const eqnn_label *gated = eqnn_rep_gated(c, eqnn_rep_label(hidden));
        eqnn_rep_linear_opts o;
        memset(&o, 0, sizeof o);
        o.no_bias = 1;
        eqnn_tensor *x = eqnn_from_rep(test_normal(c, 2, eqnn_rep_size(in)), in);
        eqnn_rep_linear(x, "first", gated, &o);
        CHECK(eqnn_parameter_size(c) == published[i].first);
        x = eqnn_as(test_normal(c, 2, eqnn_rep_size(hidden)), eqnn_rep_label(hidden));
        eqnn_rep_linear(x, "hidden", gated, &o);
        CHECK(eqnn_parameter_size(c) == published[i].first + published[i].hidden);
        CHECK_OK(c);
    }
}

/* Hidden representations in any form, also such that are no canonical sum. */
TEST(hidden_representations)
{
    static const char *const hidden[] = { "V", "V**2+V", "2*V+Scalar", "Scalar+2*V",
                                          "V*(V+Scalar)" };
    for (int i = 0; i < 5; i++) {
        eqnn_ctx *c = test_context();
        const eqnn_group *g = eqnn_group_make(c, i % 2 ? "O(3)" : "S(3)");
        const eqnn_rep *in = eqnn_rep_make(c, "Scalar+2*V", g), *out = eqnn_rep_vector(g);
        eqnn_emlp_opts o;
        memset(&o, 0, sizeof o);
        o.hidden = eqnn_rep_make(c, hidden[i], g);
        CHECK(eqnn_cols(eqnn_emlp(test_normal(c, 2, 7), "net", in, out, g, &o)) == 3);
        CHECK_OK(c);
    }
}

/* One for each layer. */
TEST(hidden_by_layers)
{
    eqnn_ctx *c = test_context();
    const eqnn_group *g = eqnn_group_make(c, "SO(3)");
    const eqnn_rep *v = eqnn_rep_vector(g), *hidden[2];
    hidden[0] = eqnn_rep_make(c, "4*Scalar+2*V+V**2", g);
    hidden[1] = eqnn_rep_make(c, "2*Scalar+5*V", g);
    eqnn_emlp_opts o;
    memset(&o, 0, sizeof o);
    o.layers = 2;
    o.hiddens = hidden;
    CHECK(eqnn_cols(eqnn_emlp(test_normal(c, 2, 3), "net", v, v, NULL, &o)) == 3);
    CHECK(eqnn_cols(eqnn_parameter(c, "net.network.0.linear.bias.0")) == 4 + 3);
    CHECK(eqnn_cols(eqnn_parameter(c, "net.network.1.linear.bias.0")) == 2 + 5);
    CHECK(eqnn_cols(eqnn_parameter(c, "net.network.1.linear.weight.1.1")) == 5 * 2);
    CHECK(eqnn_cols(eqnn_parameter(c, "net.network.2.weight.0.1")) == 5);
    CHECK_OK(c);
}

/* With .projected biases start as the paper's code has them: in [0, 1 / sqrt(out)). */
TEST(projected_bias)
{
    eqnn_ctx *c = test_context();
    const eqnn_rep *in = eqnn_rep_scalars(c, 4), *out = eqnn_rep_scalars(c, 400);
    eqnn_rep_linear_opts o;
    memset(&o, 0, sizeof o);
    o.projected = 1;
    eqnn_rep_linear(eqnn_from_rep(test_normal(c, 2, 4), in), "l", eqnn_rep_label(out), &o);
    eqnn_tensor *b = eqnn_parameter(c, "l.bias");
    double least = 1, most = 0;
    for (int i = 0; i < 400; i++) {
        least = fmin(least, eqnn_at(b, 0, i));
        most = fmax(most, eqnn_at(b, 0, i));
    }
    CHECK(least >= 0 && least < 0.002 && most > 0.048 && most <= 0.05);
    CHECK_OK(c);
}

/* Groups of one dimension, where powers of V cost nothing. */
TEST(one_dimension)
{
    static const char *const groups[] = { "O(1)", "S(1)", "Z(1)", "SL(1)", "Scaling(1)",
                                          "Trivial(1)" };
    for (int i = 0; i < 6; i++) {
        eqnn_ctx *c = test_context();
        const eqnn_group *g = eqnn_group_make(c, groups[i]);
        const eqnn_rep *v = eqnn_rep_vector(g);
        CHECK(test_finite(eqnn_emlp(test_normal(c, 2, 1), "net", v, v, g, NULL)));
        CHECK_OK(c);
    }
}

/* The file holds which copies serve in bilinear layers: another process gives the same bits. */
TEST(saved_and_loaded)
{
    const char *path = path_of("net.safetensors");
    double first[8], other[8];
    for (int run = 0; run < 2; run++) {
        eqnn_opts o = test_opts();
        o.seed = 5 + (uint64_t)run; /* other weights, had they not been loaded */
        eqnn_ctx *c = eqnn_make(&o);
        const eqnn_group *g = eqnn_group_make(c, "SO13p");
        const eqnn_rep *in = eqnn_rep_make(c, "3*V", g), *out = eqnn_rep_make(c, "V+V.T", g);
        eqnn_emlp_opts e;
        memset(&e, 0, sizeof e);
        e.channels = 64;
        if (run) CHECK(eqnn_load(c, path, NULL));
        double x[12];
        for (int i = 0; i < 12; i++) x[i] = 0.1 * (i - 4);
        eqnn_tensor *y = eqnn_emlp(eqnn_from_double(c, 1, 12, x), "net", in, out, g, &e);
        for (int i = 0; i < 8; i++) (run ? other : first)[i] = eqnn_at(y, 0, i);
        if (run) CHECK(eqnn_loaded(c));
        else {
            eqnn_reset(c);
            CHECK(eqnn_save(c, path));
        }
        CHECK_OK(c);
        eqnn_free(c);
    }
    CHECK(!memcmp(first, other, sizeof first));
    remove(path);
}

/* What hidden layers know nothing of is an error: the result would be constant. */
TEST(nothing_is_ignored)
{
    static const struct { const char *group, *in, *out, *hidden, *why; } bad[] = {
        { "SO(3)", "V(O(3))", "V(O(3))", NULL, "the group is SO(3), and a representation is of O" },
        { "SO(3)", "V(O(3))", "V", NULL, "the group is SO(3), and a representation is of O" },
        { "SO(3)xS(5)", "V+V(S(5))", "V(SO(3))", NULL, "V of the product SO(3)xS(5)" },
        { "SO(3)xS(5)", "V(SO(3))", "V(SO(3))", "4*V+4*Scalar", "from V(SO(3)) to " },
        { "SO(3)", "2*V+V(O(2))", "V", "4*V", "from V(O(2)) to 4x0e+4xV(SO(3)) is zero" },
        { "SO(3)", "2*V", "V+Scalar", "4*V", "from 4xV(SO(3)) to 0e is zero" },
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        eqnn_ctx *c = test_context();
        const eqnn_group *g = eqnn_group_make(c, bad[i].group);
        const eqnn_rep *in = eqnn_rep_make(c, bad[i].in, g), *out = eqnn_rep_make(c, bad[i].out, g);
        eqnn_emlp_opts o;
        memset(&o, 0, sizeof o);
        if (bad[i].hidden) o.hidden = eqnn_rep_make(c, bad[i].hidden, g);
        CHECK(!eqnn_emlp(test_normal(c, 2, eqnn_rep_size(in)), "net", in, out, g, &o));
        CHECK_ERROR(c, bad[i].why);
    }
}

/* Hidden layers of several groups share their channels as those of one do. */
TEST(uniform_of_several_groups)
{
    eqnn_ctx *c = test_context();
    const eqnn_group *g[2], *all[2];
    g[0] = eqnn_group_make(c, "SO(3)");
    g[1] = eqnn_group_make(c, "S(5)");
    const eqnn_rep *r = eqnn_rep_uniform_n(g, 2, 384);
    CHECK(eqnn_rep_size(r) == 384 && eqnn_rep_groups(r, all, 2) == 2);
    CHECK_TEXT(eqnn_rep_label(r)->name,
               "68x0e+20xV(SO(3))+12xV(S(5))+6xV(SO(3))**2+3xV(SO(3))*V(S(5))+1xV(S(5))**2+"
               "1xV(SO(3))**3+1xV(SO(3))**2*V(S(5))");
    r = eqnn_rep_uniform_n(g, 2, 6);
    CHECK(eqnn_rep_same(r, eqnn_rep_make(c, "3+V(SO(3))", NULL)));
    CHECK_OK(c);
    CHECK(!eqnn_rep_uniform_n(g, 2, -1));
    CHECK_ERROR(c, "-1 channels of 2 groups");
}

TEST(no_rows_and_no_columns)
{
    eqnn_ctx *c = test_context();
    for (int what = 0; what < 5; what++) {
        layer_case k = { "O(3)", "2*Scalar+V", "2*Scalar+V", what };
        eqnn_tensor *x = input_of(c, &k, 0), *y = layer(&x, 1, &k);
        CHECK(y && eqnn_rows(y) == 0 && eqnn_cols(y) == 5);
    }
    CHECK_OK(c);
    c = test_context();
    layer_case none = { "O(3)", "2*V", "Scalar", 0 }; /* no map at all, only a bias */
    eqnn_tensor *x = input_of(c, &none, 2), *y = layer(&x, 1, &none);
    CHECK(y && eqnn_at(y, 0, 0) == eqnn_at(y, 1, 0));
    CHECK_OK(c);
    c = test_context();
    layer_case scalars = { "O(3)", "3*Scalar", "V", 0 };
    x = test_normal(c, 2, 3);
    y = layer(&x, 1, &scalars);
    CHECK(eqnn_cols(y) == 3 && eqnn_at(y, 1, 2) == 0);
    CHECK_OK(c);
}

/* A block's W(a) starts as a layer of its own would, in numbers three times as large; projected, as
   published, all are N(0,1). */
TEST(bilinear_of_a_block)
{
    static const char *const name = "b.bilinear.theta.0.1";
    double size[3];
    for (int k = 0; k < 3; k++) {
        eqnn_ctx *c = test_context();
        const eqnn_group *g = eqnn_group_make(c, "SO(3)");
        const eqnn_label *v = eqnn_rep_label(eqnn_rep_make(c, "4*V", g));
        const eqnn_emlp_opts o = { .linear.projected = k == 2 };
        eqnn_tensor *x = eqnn_as(test_normal(c, 2, 12), v);
        if (k) {
            eqnn_emlp_block(x, "b", v, &o);
        } else {
            const eqnn_label *gated = eqnn_rep_gated(c, v);
            x = eqnn_enter(eqnn_as(test_normal(c, 2, 16), gated), "b");
            eqnn_leave(eqnn_rep_bilinear(x, "bilinear", gated, NULL));
        }
        CHECK(eqnn_parameter(c, name) != NULL);
        size[k] = (double)eqnn_at(eqnn_parameter(c, name), 0, 0);
        CHECK_OK(c);
    }
    CHECK_NEAR(size[1], 3 * size[0], test_eps(1e-14, 1e-6));
    CHECK(fabs(size[2]) > 1.01 * fabs(size[0]));
}

TEST(misuse)
{
    eqnn_ctx *c = test_context();
    const eqnn_group *g = eqnn_group_make(c, "O(3)"), *u = eqnn_group_make(c, "U(2)");
    const eqnn_rep *v = eqnn_rep_vector(g);
    eqnn_tensor *x = eqnn_as(test_normal(c, 2, 3), eqnn_rep_label(v));
    eqnn_rep_linear(x, "l", NULL, NULL);
    CHECK_ERROR(c, "label is missing");
    eqnn_silu(x);
    CHECK_ERROR(c, "V");
    eqnn_rep_linear(x, "l", eqnn_irreps_make(c, "1x1o"), NULL);
    CHECK_ERROR(c, "no label of representations");
    eqnn_rep_gate(x, eqnn_rep_label(eqnn_rep_make(c, "2*V", g)));
    CHECK_ERROR(c, "rep_gate");
    eqnn_emlp(eqnn_as(x, NULL), "net", v, v, NULL, NULL);
    CHECK_ERROR(c, "emlp in net: the group is missing");
    eqnn_emlp(eqnn_as(x, NULL), "net", eqnn_rep_make(c, "2*V", g), v, g, NULL);
    CHECK_ERROR(c, "from_rep in net: [2,3] is no 2*V");
    eqnn_emlp(eqnn_from_double(c, 1, 2, (double[2]){ 1, 2 }), "net", eqnn_rep_vector(u),
              eqnn_rep_vector(u), u, NULL);
    CHECK_ERROR(c, "complex");
    CHECK(eqnn_rep_linear(NULL, "l", eqnn_rep_label(v), NULL) == NULL);
    const eqnn_emlp_opts none[2] = { { .channels = -1 }, { .layers = -1 } };
    for (int i = 0; i < 2; i++) {
        eqnn_emlp(eqnn_as(x, NULL), "net", v, v, g, &none[i]);
        CHECK_ERROR(c, "is -1; it must be positive, or 0 for the default");
    }
}

/* ---- memory -------------------------------------------------------------------------------- */

/* Expressions of many kinds, with errors behind them, and a network. */
static int representations(eqnn_ctx *c)
{
    const eqnn_group *g = eqnn_group_make(c, "SO(3)");
    const eqnn_rep *in = eqnn_rep_make(c, "3*V + 2*V**2 + 4 >> (V + 1).T", g);
    const eqnn_rep *v = eqnn_rep_product(eqnn_rep_power(eqnn_rep_vector(g), 2),
                                         eqnn_rep_dual(eqnn_rep_times(2, eqnn_rep_vector(g))));
    const eqnn_rep *hidden = eqnn_rep_uniform(g, 40), *t = eqnn_rep_tensor(g, 2, 1);
    eqnn_emlp_opts o;
    memset(&o, 0, sizeof o);
    o.hidden = hidden;
    o.layers = 1;
    int cols = eqnn_rep_size(in);
    return v && t && eqnn_emlp(eqnn_zeros(c, 2, cols), "net", in, eqnn_rep_vector(g), NULL, &o);
}

TEST(representations_leak_no_memory)
{
    check_leaks(representations);
    check_buffer(representations);
}

/* Networks whose hidden layers have maps to the output, but never what these would take there: the
   determinant of three vectors is not in the V**3 that products of V and V**2 make. */
TEST(networks_that_would_be_zero)
{
    static const struct { const char *group, *in, *out; int dead, alive; } k[] = {
        { "O(3)", "3*V", "P", 384, 600 },
        { "O(3)", "2*V", "P*V", 90, 128 },
        { "SO(2)", "psi(1)+psi(2)", "psi(3)", 50, 90 },
        { "SO(2)", "V", "psi(4)", 128, 200 },
        { "O(3)", "3*V", "V + P", 200, 600 },
        { "SO(3)", "2*V", "V", 0, 30 },
    };
    for (int i = 0; i < 6; i++)
        for (int dead = 0; dead < 2; dead++) {
            eqnn_ctx *c = test_context();
            const eqnn_group *g = eqnn_group_make(c, k[i].group);
            const eqnn_rep *in = eqnn_rep_make(c, k[i].in, g), *out = eqnn_rep_make(c, k[i].out, g);
            eqnn_emlp_opts o;
            memset(&o, 0, sizeof o);
            o.channels = dead ? k[i].dead : k[i].alive;
            if (!o.channels) continue;
            eqnn_tensor *x = test_normal(c, 3, eqnn_rep_size(in));
            CHECK((eqnn_emlp(x, "net", in, out, g, &o) == NULL) == dead);
            if (dead) CHECK_ERROR(c, "of the output would be zero for any input");
            else CHECK(eqnn_emlp(x, "net", in, out, g, &o) != NULL); /* tried once only */
            CHECK_OK(c);
        }
    /* the remedy: a hidden representation by way of which V**3 gets a determinant */
    eqnn_ctx *c = test_context();
    const eqnn_group *g = eqnn_group_make(c, "O(3)");
    const eqnn_rep *in = eqnn_rep_make(c, "3*V", g), *out = eqnn_rep_make(c, "P", g);
    eqnn_emlp_opts o;
    memset(&o, 0, sizeof o);
    o.hidden = eqnn_rep_make(c, "20 + 8*V + 4*V**2 + 2*V**3 + V**4", g);
    eqnn_tensor *y = eqnn_emlp(test_normal(c, 3, 9), "net", in, out, NULL, &o);
    CHECK(y && fabs(eqnn_at(y, 0, 0)) > 1e-7);
    CHECK_OK(c);
}

/* An option that nothing reads is refused, with what it is for. */
TEST(options_without_use)
{
    eqnn_ctx *c = test_context();
    const eqnn_group *g = eqnn_group_make(c, "SO(3)");
    const eqnn_rep *v = eqnn_rep_vector(g), *hidden = eqnn_rep_make(c, "4*Scalar+2*V", g);
    eqnn_tensor *x = test_normal(c, 2, 3), *y = eqnn_as(test_normal(c, 2, 3), eqnn_rep_label(v));
    const eqnn_emlp_opts o[4] = { { .channels = 9 }, { .layers = 1 }, { .hidden = hidden },
                                  { .hiddens = &hidden } };
    static const char *const name[4] = { ".channels", ".layers", ".hidden", ".hiddens" };
    for (int i = 0; i < 4; i++) {
        CHECK(!eqnn_emlp_block(y, "b", eqnn_rep_label(v), &o[i]));
        CHECK_ERROR(c, eqnn_format(c, "emlp_block: %s is set, but of no use in a single block: it "
                                      "is of eqnn_emlp", name[i]));
    }
    eqnn_emlp_opts both = { .hidden = hidden, .hiddens = &hidden, .layers = 1 };
    CHECK(!eqnn_emlp(x, "net", v, v, g, &both));
    CHECK_ERROR(c, ".hidden is set, but of no use beside .hiddens");
    for (int i = 0; i < 2; i++) {
        both.hidden = i ? NULL : hidden, both.hiddens = i ? &hidden : NULL, both.channels = 9;
        CHECK(!eqnn_emlp(x, "net", v, v, g, &both));
        CHECK_ERROR(c, ".channels is set, but of no use beside .hidden or .hiddens");
    }
    both.channels = 0;
    CHECK(eqnn_emlp(x, "net", v, v, NULL, &both) != NULL);
    CHECK_OK(c);
}

TEST_MAIN
