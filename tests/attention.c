/* attention.c - tests of section 13: attention, the networks of v2106, graph attention

   -v prints the equivariance errors. The numbers of the reference implementation are in
   golden.c. */
#include "test.h"

static eqnn_tensor *labelled(eqnn_tensor *x, const char *irreps)
{
    return eqnn_as(x, eqnn_irreps_make(eqnn_context(x), irreps));
}

static eqnn_tensor *atoms(eqnn_ctx *c, int n) { return labelled(test_normal(c, n, 3), "1x1o"); }

/* --- models as functions of positions and features --- */

static const eqnn_attention_opts small_head = {
    .q = "3x0e+2x1o+1x1e", .k = "2x0e+2x1o+1x2e+1x1e", .out = "2x0e+1x0o+2x1o+1x1e+1x2e",
    .radius = 1.7, .lmax = 2, .basis = 6, .hidden = 7
};
static const eqnn_network_opts small_network = {
    .hidden = "4x0o+5x0e+3x1o+3x1e+2x2o+2x2e", .out = "2x0e+1x0o+1x1o+1x1e", .layers = 2,
    .radius = 1.7, .basis = 6, .radial_neurons = 9, .neighbours = 4, .nodes = 10
};

enum { HEAD, MULTI_HEAD, SE3, V2106, GNN };
typedef struct model {
    int kind;
    eqnn_attention_opts head;
    eqnn_multi_head_opts heads;
    eqnn_network_opts network;
    const int *example;
    int scalars; /* edges have two more numbers; nodes of SE3 and GNN the features x[1] */
} model;

static model model_of(int kind)
{
    model m = { .kind = kind, .head = small_head, .network = small_network };
    m.heads.head = small_head;
    m.heads.heads = 2;
    m.heads.layers = 2;
    return m;
}

/* Two numbers that do not turn, and do not change with an edge's direction. */
static eqnn_tensor *two_scalars(eqnn_tensor *pos, const eqnn_graph *g)
{
    eqnn_tensor *length = eqnn_norm(eqnn_edge_vectors(pos, g));
    return eqnn_concat(length, eqnn_sin(eqnn_scale(length, 3)));
}

static eqnn_tensor *run_with(const model *m, eqnn_tensor *const *x, int n, const eqnn_graph *g)
{
    eqnn_gnn_opts gnn = { .channels = 5, .heads = 2, .hidden = 6, .out = 2, .lmax = 2 };
    eqnn_attention_opts head = m->head;
    eqnn_multi_head_opts heads = m->heads;
    if (m->scalars) {
        gnn.edge_scalars = head.edge_scalars = heads.head.edge_scalars = two_scalars(x[0], g);
        gnn.x = heads.x = n > 1 ? x[1] : NULL;
    }
    switch (m->kind) {
    case HEAD: return eqnn_attention(x[1], x[0], g, "net", &head);
    case MULTI_HEAD: return eqnn_multi_head(x[1], x[0], g, "net", &heads);
    case SE3: return eqnn_attention_network(x[0], g, "net", &heads);
    case V2106: return eqnn_network_2106(n > 1 ? x[1] : NULL, NULL, x[0], g, "net", &m->network);
    default: return eqnn_gnn(x[0], g, "net", &gnn);
    }
}

static eqnn_tensor *run(eqnn_tensor *const *x, int n, void *user)
{
    const model *m = (const model *)user;
    eqnn_graph_opts o = { .example = m->example };
    return run_with(m, x, n, eqnn_radius_graph(x[0], m->head.radius, &o));
}

/* v2106 listens to no message at first. */
static void listen(eqnn_ctx *c)
{
    for (int i = 0; i < eqnn_parameter_count(c); i++) {
        eqnn_tensor *w = eqnn_parameter_at(c, i);
        double v[64];
        if (!strstr(eqnn_parameter_name(c, i), "alpha.weight") || eqnn_cols(w) > 64) continue;
        for (int k = 0; k < eqnn_cols(w); k++) v[k] = sin(3 * k + i);
        eqnn_set(w, v);
    }
}

/* --- symmetries --- */

static double shifted(model *m, eqnn_tensor *const *x, int n)
{
    eqnn_tensor *moved[2] = { NULL, NULL };
    double t[3] = { 0.5, -1.25, 2 };
    for (int i = 0; i < n; i++) moved[i] = x[i];
    moved[0] = eqnn_add(x[0], labelled(eqnn_from_double(eqnn_context(x[0]), 1, 3, t), "1x1o"));
    return test_difference(run(moved, n, m), run(x, n, m));
}

static void check_symmetric(model *m, eqnn_tensor *const *x, int n, const char *what)
{
    run(x, n, m);
    listen(eqnn_context(x[0]));
    double turned = eqnn_check_equivariance(run, x, n, m, 3, NULL), moved = shifted(m, x, n);
    test_note("%s: O(3) %.1e, translation %.1e", what, turned, moved);
    CHECK_NEAR(turned, 0, test_eps(1e-12, 5e-5));
    CHECK_NEAR(moved, 0, test_eps(1e-12, 1e-4));
}

TEST(attention_is_equivariant)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *x[2] = { atoms(c, 12), labelled(test_normal(c, 12, 10), "3x0e+1x0o+1x1o+1x1e") };
    model m = model_of(HEAD), many = model_of(MULTI_HEAD);
    check_symmetric(&m, x, 2, "attention");
    m.head.clamp = m.head.mean = 1;
    m.head.act = EQNN_GELU;
    check_symmetric(&m, x, 2, "attention as in the study");
    eqnn_ctx *d = test_context();
    eqnn_tensor *y[2] = { atoms(d, 12), labelled(test_normal(d, 12, 10), "3x0e+1x0o+1x1o+1x1e") };
    check_symmetric(&many, y, 2, "two heads");
}

/* Positions as features know where the origin is; about the centre, with layers that move them,
   they do not. */
TEST(attention_network_is_equivariant)
{
    eqnn_ctx *c = test_context(), *d = test_context();
    eqnn_tensor *x = atoms(c, 9), *y = atoms(d, 9);
    model m = model_of(SE3);
    m.head.radius = m.heads.head.radius = 3;
    m.heads.head.out = "3x0e+2x1o+1x1e";
    double turned = eqnn_check_equivariance(run, &x, 1, &m, 2, NULL), moved = shifted(&m, &x, 1);
    test_note("SE(3) network of absolute positions: O(3) %.1e, translation %.1e", turned, moved);
    CHECK_NEAR(turned, 0, test_eps(1e-11, 2e-4));
    CHECK(moved > 1e-3);
    m.heads.centred = m.heads.moves = 1;
    check_symmetric(&m, &y, 1, "SE(3) network of centred positions");
}

TEST(edge_scalars_and_more_features)
{
    for (int kind = HEAD; kind <= SE3; kind++) {
        eqnn_ctx *c = test_context();
        eqnn_tensor *x[2] = { atoms(c, 9), labelled(test_normal(c, 9, 6), "2x0e+1x0o+1x1o") };
        model m = model_of(kind);
        m.scalars = m.heads.centred = m.heads.moves = 1;
        m.head.radius = m.heads.head.radius = 3;
        check_symmetric(&m, x, 2, "attention with scalars of edges");
        CHECK(eqnn_cols(eqnn_grad(eqnn_sum(eqnn_square(eqnn_as(run(x, 2, &m), NULL))), x[1])) == 6);
        m.head.edge_scalars = eqnn_full(c, 1, 1, 1);
        m.scalars = 0;
        m.heads.head.edge_scalars = m.head.edge_scalars;
        CHECK(!run(x, 2, &m));
        CHECK_ERROR(c, "edge_scalars [1,1]");
    }
}

/* More features and attributes reach the answer. */
TEST(gnn_with_features_and_attributes)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *x[2] = { atoms(c, 8), test_normal(c, 8, 3) };
    model m = model_of(GNN);
    m.scalars = 1;
    CHECK_NEAR(shifted(&m, x, 2), 0, test_eps(1e-12, 1e-4));
    eqnn_tensor *y = run(x, 2, &m), *dx = eqnn_grad(eqnn_sum(eqnn_square(y)), x[1]);
    CHECK(eqnn_value(eqnn_sum(eqnn_square(dx))) > 1e-8);
    CHECK(eqnn_cols(eqnn_parameter(c, "net.conv1.lin_edge.weight")) == 9 + 2);
    eqnn_gnn_opts o = { .edge_scalars = eqnn_full(c, 1, 2, 1) };
    CHECK(!eqnn_gnn(x[0], eqnn_radius_graph(x[0], 2, NULL), "other", &o));
    CHECK_ERROR(c, "edge_scalars [1,2]");
}

TEST(network_2106_is_equivariant)
{
    eqnn_ctx *c = test_context(), *d = test_context();
    eqnn_tensor *x[2] = { atoms(c, 12), labelled(test_normal(c, 12, 5), "2x0e+1x1e") },
                *y = atoms(d, 12);
    model m = model_of(V2106);
    check_symmetric(&m, x, 2, "v2106");
    m.network.hidden = NULL;
    m.network.lmax = 1;
    check_symmetric(&m, &y, 1, "v2106 with its own hidden irreps");
    CHECK(eqnn_rows(eqnn_parameter(d, "net.mp.layers.0.first.fc.layer1.weight")) == 9);
}

/* Only translations: that it is not equivariant is the point of the baseline. */
TEST(gnn_is_not_equivariant)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *x = atoms(c, 11);
    model m = model_of(GNN);
    double moved = shifted(&m, &x, 1), R[9];
    eqnn_rotation_random(c, "R", 0, R);
    eqnn_tensor *turned = eqnn_rotate(x, R);
    CHECK_NEAR(moved, 0, test_eps(1e-12, 1e-4));
    CHECK(test_difference(run(&turned, 1, &m), run(&x, 1, &m)) > 1e-3);
}

/* --- company, emptiness --- */

static int inputs(eqnn_ctx *c, int kind, int nodes, double size, eqnn_tensor *x[2])
{
    x[0] = labelled(eqnn_scale(test_normal(c, nodes, 3), size), "1x1o");
    x[1] = labelled(test_normal(c, nodes, 6), "3x0e+1x1o");
    return kind == HEAD || kind == MULTI_HEAD || kind == V2106 ? 2 : 1;
}

/* An example's result does not depend on its company; node 7 is alone. */
TEST(examples_do_not_meet)
{
    int example[18], first[] = { 0, 7, 8, 18 };
    for (int i = 0; i < 18; i++) example[i] = i < 7 ? 0 : i < 8 ? 1 : 2;
    for (int kind = HEAD; kind <= GNN; kind++) {
        eqnn_ctx *c = test_context();
        eqnn_tensor *x[2];
        int n = inputs(c, kind, 18, 1, x);
        model m = model_of(kind);
        m.heads.centred = 1;
        m.example = example;
        run(x, n, &m);
        listen(c);
        eqnn_tensor *all = run(x, n, &m);
        m.example = NULL;
        for (int k = 0; k < 3; k++) {
            int rows = first[k + 1] - first[k];
            eqnn_tensor *one[2];
            for (int i = 0; i < 2; i++) one[i] = eqnn_slice_rows(x[i], first[k], rows);
            CHECK_SAME(run(one, n, &m), eqnn_slice_rows(all, first[k], rows),
                       test_eps(1e-12, 5e-5));
        }
    }
}

/* No nodes, one, two far apart: no edges; numbers and all first and second derivatives are
   finite. */
TEST(nothing_is_legal)
{
    for (int kind = HEAD; kind <= GNN; kind++) {
        for (int nodes = 0; nodes < 4; nodes++) {
            eqnn_ctx *c = test_context();
            eqnn_tensor *x[2];
            int n = inputs(c, kind, nodes, nodes == 3 ? 0 : 100, x); /* three in one place */
            model m = model_of(kind);
            eqnn_tensor *y = run(x, n, &m),
                        *d = eqnn_grad(eqnn_sum(eqnn_square(eqnn_as(y, NULL))), x[0]);
            CHECK(eqnn_rows(y) == nodes && eqnn_rows(d) == nodes && eqnn_cols(d) == 3);
            eqnn_tensor *loss = eqnn_add(eqnn_sum(eqnn_square(eqnn_as(y, NULL))),
                                         eqnn_sum(eqnn_square(eqnn_as(d, NULL))));
            eqnn_backward(loss);
            CHECK(isfinite(eqnn_value(loss)));
            for (int p = 0; p < eqnn_parameter_count(c); p++)
                CHECK(isfinite(eqnn_value(eqnn_sum(eqnn_gradient(eqnn_parameter_at(c, p))))));
            CHECK_OK(c);
        }
    }
}

/* --- derivatives --- */

TEST(derivatives_by_differences)
{
    int last =
        sizeof(eqnn_real) == 8 ? GNN : V2106; /* float's steps are so long that they meet kinks */
    for (int kind = HEAD; kind <= last; kind++) {
        eqnn_ctx *c = test_context();
        eqnn_tensor *x[2];
        int n = inputs(c, kind, 5, 0.5, x);
        model m = model_of(kind);
        m.head.radius = m.heads.head.radius = m.network.radius = 4;
        m.head.out = "1x0e+1x1o";
        m.network.out = "1x0e+1x1o";
        run(x, n, &m);
        listen(c);
        CHECK_DERIVATIVES_OF(run, x, n, &m, kind == GNN ? 1 : 2); /* the leaky relu bends */
    }
}

/* An edge that passes the radius is not felt: value and slope. */
TEST(smooth_at_the_radius)
{
    eqnn_ctx *c = test_context();
    double p[9] = { 0, 0, 0, 0.9, 0.3, 0, 0, 0.2, 1.7 };
    model m = model_of(HEAD);
    eqnn_tensor *x[2] = { NULL, labelled(test_normal(c, 3, 6), "3x0e+1x1o") }, *y[2];
    eqnn_graph_opts o = { .targets = 3 };
    int source[] = { 1, 2, 0 }, target[] = { 0, 0, 1 };
    const eqnn_graph *g = eqnn_graph_make(c, 3, source, target, &o);
    const eqnn_graph *short_one = eqnn_graph_make(c, 2, (int[]){ 1, 0 }, (int[]){ 0, 1 }, &o);
    for (int k = 0; k < 3; k++) {
        p[8] = sqrt(1.7 * 1.7 - 0.04) + (k - 1) * 1e-2; /* inside, on the radius, outside */
        x[0] = labelled(eqnn_from_double(c, 3, 3, p), "1x1o");
        y[0] = run_with(&m, x, 2, g);
        y[1] = run_with(&m, x, 2, short_one);
        CHECK_SAME(y[0], y[1], k ? test_eps(1e-13, 1e-6) : 1e-6);
        CHECK_SAME(eqnn_grad(eqnn_sum(eqnn_square(eqnn_as(y[0], NULL))), x[0]),
                   eqnn_grad(eqnn_sum(eqnn_square(eqnn_as(y[1], NULL))), x[0]),
                   k ? test_eps(1e-12, 1e-5) : 1e-3);
    }
}

/* --- weights of attention --- */

TEST(weights_sum_to_one)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *x[2], *alpha[2] = { NULL, NULL };
    model m = model_of(HEAD);
    inputs(c, HEAD, 12, 1, x);
    const eqnn_graph *g = eqnn_radius_graph(x[0], m.head.radius, NULL);
    m.head.weights = &alpha[0];
    eqnn_tensor *a = run_with(&m, x, 2, g);
    m.head.weights = &alpha[1];
    m.head.raw = 1;
    CHECK_SAME(a, run_with(&m, x, 2, g), test_eps(1e-12, 2e-5));
    CHECK_SAME(alpha[0], alpha[1], test_eps(1e-13, 1e-5));
    eqnn_tensor *sum = eqnn_scatter(alpha[0], g);
    for (int i = 0; i < g->targets; i++)
        CHECK_NEAR(eqnn_at(sum, i, 0), g->first[i] < g->first[i + 1] ? 1 : 0,
                   test_eps(1e-14, 1e-6));
}

/* Logits of 1e4 and more: exp overflows, the softmax does not; with the clamp, neither. */
TEST(large_logits)
{
    for (int clamp = 0; clamp < 2; clamp++) {
        eqnn_ctx *c = test_context();
        eqnn_tensor *x[2];
        model m = model_of(HEAD);
        m.head.clamp = clamp;
        inputs(c, HEAD, 12, 1, x);
        x[1] = eqnn_scale(x[1], 300);
        eqnn_tensor *loss = eqnn_mean(eqnn_square(eqnn_as(run(x, 2, &m), NULL)));
        eqnn_backward(loss);
        CHECK(isfinite(eqnn_value(loss)) && eqnn_value(loss) > 0);
        for (int p = 0; p < eqnn_parameter_count(c); p++)
            CHECK(isfinite(eqnn_value(eqnn_sum(eqnn_gradient(eqnn_parameter_at(c, p))))));
    }
}

/* --- names, sizes --- */

TEST(names_of_a_head)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *x[2];
    model m = model_of(HEAD);
    static const char *names[] = {
        "to_q.weight",        "fc_k.layer0.weight", "fc_k.layer1.weight",
        "fc_v.layer0.weight", "fc_v.layer1.weight", "dot_product.weight"
    };
    inputs(c, HEAD, 5, 1, x);
    run(x, 2, &m);
    CHECK(eqnn_parameter_count(c) == 6);
    for (int i = 0; i < 6; i++) CHECK_TEXT(eqnn_parameter_name(c, i) + 4, names[i]);
}

/* k or v: products of x[source] and the harmonics, weights by a network of the length. */
static eqnn_tensor *answer(eqnn_tensor *x, eqnn_tensor *Y, eqnn_tensor *b, const eqnn_graph *g,
                           const char *name, const char *irreps, const eqnn_attention_opts *o)
{
    eqnn_ctx *c = eqnn_context(x);
    const eqnn_product *p = eqnn_product_full(c, eqnn_label_of(x), eqnn_label_of(Y),
                                              eqnn_irreps_make(c, irreps), NULL);
    eqnn_fc_opts f = { .act = o->act, .exact = o->exact };
    const char *widths = eqnn_format(c, "%d,%d", o->hidden, eqnn_product_weights(p));
    return eqnn_tensor_product(eqnn_gather(x, g), Y, eqnn_fc(b, name, widths, &f), p);
}

static eqnn_tensor *head_by_hand(eqnn_tensor *x, eqnn_tensor *pos, const eqnn_graph *g,
                                 const char *name, const eqnn_attention_opts *o)
{
    eqnn_ctx *c = eqnn_context(pos);
    eqnn_tensor *r = eqnn_edge_vectors(pos, g), *d = eqnn_norm(r);
    eqnn_tensor *Y = eqnn_spherical_harmonics(r, o->lmax, &(eqnn_harmonics_opts){ .normalize = 1 });
    eqnn_tensor *b = eqnn_radial_basis(d, o->basis, o->radius, &(eqnn_radial_opts){
                                           .basis = EQNN_SMOOTH_FINITE, .cutoff = 1 });
    eqnn_tensor *cut = eqnn_map(eqnn_shift(eqnn_scale(d, -10 / o->radius), 10), EQNN_SUS, 0, 0);
    x = eqnn_enter(x, name);
    const eqnn_irreps *asks = eqnn_irreps_make(c, o->q);
    eqnn_tensor *q = eqnn_irreps_map(x, eqnn_param(c, "to_q.weight", 1,
                                                   eqnn_irreps_map_weights(eqnn_label_of(x), asks,
                                                                           NULL), NULL),
                                     NULL, asks, NULL);
    eqnn_tensor *k = answer(x, Y, b, g, "fc_k", o->k, o);
    eqnn_tensor *v = answer(x, Y, b, g, "fc_v", o->out, o);
    eqnn_tensor *s = eqnn_leave(eqnn_fully_connected(eqnn_gather_target(q, g), k, "dot_product",
                                                     "1x0e", NULL));
    eqnn_tensor *a = eqnn_mul(cut, eqnn_exp(eqnn_as(s, NULL)));
    if (o->clamp) a = eqnn_clamp(a, 0, 1);
    a = eqnn_div(a, eqnn_gather_target(eqnn_scatter(a, g), g));
    eqnn_tensor *y = eqnn_scatter(eqnn_mul(v, eqnn_sqrt(a)), g);
    return o->mean ? eqnn_mul(y, eqnn_inverse_degree(g)) : y;
}

TEST(head_is_its_formula)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *pos = atoms(c, 7), *x = labelled(test_normal(c, 7, 5), "2x0e+1x1o");
    const eqnn_graph *g = eqnn_radius_graph(pos, small_head.radius, NULL);
    for (int way = 0; way < 8; way++) {
        eqnn_attention_opts o = small_head;
        o.act = way & 1 ? EQNN_GELU : EQNN_SILU;
        o.exact = way & 1;
        o.clamp = way >> 1 & 1;
        o.mean = way >> 2;
        eqnn_tensor *y = eqnn_attention(x, pos, g, "a", &o);
        CHECK_SAME(y, head_by_hand(x, pos, g, "a", &o), test_eps(1e-12, 1e-4));
    }
    CHECK(eqnn_parameter_count(c) == 6);
}

/* Heads side by side; then twice a product with the harmonics, and the mean over edges. */
static eqnn_tensor *heads_by_hand(eqnn_tensor *x, eqnn_tensor *pos, const eqnn_graph *g,
                                  const char *name, const eqnn_multi_head_opts *o)
{
    eqnn_harmonics_opts unit = { .normalize = 1 };
    eqnn_tensor *Y = eqnn_spherical_harmonics(eqnn_edge_vectors(pos, g), o->head.lmax, &unit);
    eqnn_tensor *h = NULL;
    x = eqnn_enter(x, name);
    for (int k = 0; k < o->heads; k++) {
        const char *head = eqnn_format(eqnn_context(pos), "heads.%d", k);
        eqnn_tensor *y = eqnn_attention(x, pos, g, head, &o->head);
        h = h ? eqnn_concat(h, y) : y;
    }
    h = eqnn_fully_connected(eqnn_gather(h, g), Y, "tp1", o->head.out, NULL);
    h = eqnn_scatter_mean(h, g);
    h = eqnn_fully_connected(eqnn_gather(h, g), Y, "tp2", o->out ? o->out : "1x1o", NULL);
    return eqnn_leave(eqnn_scatter_mean(h, g));
}

/* Layers that move the beads, or replace them; which hear who is near then. */
TEST(attention_network_is_its_formula)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *pos = atoms(c, 6), *more = labelled(test_normal(c, 6, 4), "1x0e+1x1e");
    const eqnn_graph *g = eqnn_radius_graph(pos, small_head.radius, NULL);
    for (int way = 0; way < 4; way++) {
        eqnn_multi_head_opts o = { .head = small_head, .heads = 3, .layers = 2 };
        o.centred = way & 1;
        o.moves = way >> 1;
        o.x = way == 2 ? more : NULL;
        const char *name = way == 2 ? "more" : "net";
        eqnn_tensor *y = eqnn_attention_network(pos, g, name, &o), *now = eqnn_enter(pos, name);
        for (int k = 0; k < 2; k++) {
            const eqnn_graph *near = k ? eqnn_radius_graph(now, small_head.radius, NULL) : g;
            eqnn_tensor *x = o.centred ? eqnn_sub(now, eqnn_mean_rows(now)) : now;
            if (o.x) x = eqnn_concat(x, o.x);
            x = heads_by_hand(x, now, near, eqnn_format(c, "layers.%d", k), &o);
            now = o.moves ? eqnn_add(now, x) : x;
        }
        now = eqnn_leave(o.moves ? eqnn_sub(now, pos) : now);
        CHECK_SAME(y, now, test_eps(1e-12, 1e-4));
    }
    CHECK(eqnn_parameter_count(c) == 2 * 2 * (3 * 6 + 2));
}

/* The study's network: 147,776 weights that were trained and 185,088 that were not, all of them
   ours; its graph network: 1,369,091. */
TEST(sizes_of_known_models)
{
    const char *mid = "8x0e+8x0o+16x1e+16x1o+8x2e+8x2o";
    eqnn_attention_opts head = { .q = mid,
                                 .out = mid,
                                 .radius = 3.5,
                                 .lmax = 4,
                                 .basis = 20,
                                 .hidden = 25,
                                 .act = EQNN_GELU,
                                 .clamp = 1,
                                 .mean = 1 };
    eqnn_multi_head_opts o = { .head = head, .heads = 16 };
    eqnn_ctx *c = test_context(), *d = test_context(), *e = test_context();
    eqnn_tensor *pos = atoms(c, 3);
    eqnn_multi_head(pos, pos, eqnn_radius_graph(pos, 3.5, NULL), "mha", &o);
    CHECK(eqnn_parameter_size(c) == 73808 + 92544);
    CHECK(eqnn_parameter(c, "mha.heads.15.fc_v.layer1.weight") &&
          eqnn_parameter(c, "mha.tp1.weight"));
    o.heads = 8;
    pos = atoms(d, 3);
    eqnn_attention_network(pos, eqnn_radius_graph(pos, 3.5, NULL), "", &o);
    CHECK(eqnn_parameter_size(d) == 147776 + 185088);
    CHECK(eqnn_parameter(d, "layers.3.heads.7.to_q.weight") &&
          eqnn_parameter(d, "layers.3.tp2.weight"));
    eqnn_ctx *flat = test_context(); /* harmonics of degree 0 only, in every layer */
    o.head.lmax = -1;
    pos = atoms(flat, 3);
    eqnn_attention_network(pos, eqnn_radius_graph(pos, 3.5, NULL), "one", &o);
    pos = atoms(flat, 3);
    for (int k = 0; k < 4; k++)
        pos = eqnn_multi_head(pos, pos, eqnn_radius_graph(pos, 1e3, NULL),
                              eqnn_format(flat, "other.layers.%d", k), &o);
    CHECK(eqnn_parameter_size(flat) > 0 && eqnn_parameter_size(flat) < 2 * (147776 + 185088));
    for (int i = 0, n = eqnn_parameter_count(flat) / 2; i < n; i++)
        CHECK(eqnn_cols(eqnn_parameter_at(flat, i)) == eqnn_cols(eqnn_parameter_at(flat, n + i)));
    pos = atoms(e, 3);
    eqnn_gnn(pos, eqnn_radius_graph(pos, 2.5, NULL), "", NULL);
    CHECK(eqnn_parameter_size(e) == 1369091);
}

/* --- known answers --- */

/* With weights 0 a layer of v2106 is its self-connection, where that reaches; elsewhere the
   message. */
TEST(mixing_begins_at_zero)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *pos = atoms(c, 7), *x = labelled(test_normal(c, 7, 5), "2x0e+1x1o");
    const eqnn_graph *g = eqnn_radius_graph(pos, 2, NULL);
    eqnn_tensor *r = eqnn_edge_vectors(pos, g), *Y = eqnn_spherical_harmonics(r, 1, NULL);
    eqnn_tensor *b = eqnn_radial_basis(eqnn_norm(r), 4, 2, NULL);
    const eqnn_irreps *out = eqnn_irreps_make(c, "3x0e+2x1o+1x1e");
    eqnn_conv_opts o = { .radial_neurons = 8, .mixing = 1 };
    eqnn_tensor *y = eqnn_conv(x, NULL, Y, b, g, "conv", out, &o);
    eqnn_tensor *s = eqnn_leave(eqnn_irreps_linear(eqnn_enter(x, "conv"), "sc", "3x0e+2x1o", NULL));
    CHECK_SAME(eqnn_slice(y, 0, 9), s, test_eps(1e-13, 1e-5));
    CHECK(eqnn_value(eqnn_sum(eqnn_square(eqnn_as(eqnn_slice(y, 9, 3), NULL)))) > 1e-6);
}

/* Attributes that are not numbers: the mixing number is a product with them. */
TEST(mixing_with_attributes)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *x[2] = { atoms(c, 8), test_normal(c, 8, 2) };
    eqnn_tensor *z = labelled(test_normal(c, 8, 4), "1x0e+1x1o");
    const eqnn_graph *g = eqnn_radius_graph(x[0], 2, NULL);
    eqnn_network_opts o = small_network;
    o.radius = 2;
    eqnn_tensor *y = eqnn_network_2106(x[1], z, x[0], g, "net", &o);
    CHECK(eqnn_rows(y) == 8 && eqnn_cols(y) == 9);
    listen(c);
    CHECK(test_difference(eqnn_network_2106(x[1], z, x[0], g, "net", &o), y) > 1e-6);
    CHECK_OK(c);
}

static double score(const eqnn_real *h, eqnn_tensor *a, int head, int channels)
{
    double s = 0;
    for (int k = 0; k < channels; k++)
        s += (double)h[head * channels + k] * eqnn_at(a, 0, head * channels + k);
    return s;
}

/* The formula, one edge after the other, on a graph that has loops and a lone node. */
TEST(gat_conv_is_its_formula)
{
    eqnn_ctx *c = test_context();
    enum { n = 4, heads = 2, channels = 3, cols = heads * channels };
    int source[] = { 1, 2, 0, 1, 2 }, target[] = { 0, 0, 1, 1, 1 }; /* 1 -> 1 is left out */
    eqnn_graph_opts o = { .targets = n };
    eqnn_gat_opts gat = { .heads = heads, .slope = 0.3 };
    const eqnn_graph *g = eqnn_graph_make(c, 5, source, target, &o);
    eqnn_tensor *x = test_normal(c, n, 5),
                *a = test_normal(c, 5, 2); /* rows sorted as the edges are */
    eqnn_tensor *y = eqnn_gat_conv(x, a, g, "gat", channels, &gat);
    eqnn_tensor *h = eqnn_matmul_t(x, eqnn_parameter(c, "gat.lin.weight"), 0, 1);
    eqnn_tensor *e = eqnn_matmul_t(a, eqnn_parameter(c, "gat.lin_edge.weight"), 0, 1);
    const eqnn_real *H = eqnn_data(h), *E = eqnn_data(e);
    for (int i = 0; i < n; i++)
        for (int k = 0; k < cols; k++) {
            double top = 0, bottom = 0, mean = 0, count = 0;
            for (int j = 0; j <= 5; j++) { /* the loop last */
                int loop = j == 5, from = loop ? i : g->source[j];
                if (!loop && (g->target[j] != i || from == i)) continue;
                double edge = loop ? mean / fmax(count, 1)
                                   : score(E + j * cols, eqnn_parameter(c, "gat.att_edge"),
                                           k / channels, channels);
                double s = score(H + from * cols, eqnn_parameter(c, "gat.att_src"), k / channels,
                                 channels) +
                           edge;
                s += score(H + i * cols, eqnn_parameter(c, "gat.att_dst"), k / channels, channels);
                s = exp(s > 0 ? s : 0.3 * s);
                top += s * (double)H[from * cols + k];
                bottom += s;
                mean += edge;
                count++;
            }
            CHECK_NEAR(eqnn_at(y, i, k), top / bottom, test_eps(1e-13, 1e-5));
        }
    CHECK_NEAR(eqnn_at(y, 3, 2), (double)H[3 * cols + 2], test_eps(1e-14, 1e-6));
}

/* The graph as it is given: its loops count, and none are put in. */
TEST(gat_conv_of_given_edges)
{
    eqnn_ctx *c = test_context();
    int source[] = { 1, 0, 2 }, target[] = { 0, 0, 1 };
    eqnn_graph_opts o = { .targets = 4 };
    eqnn_gat_opts gat = { .heads = 2, .given_edges = 1 };
    const eqnn_graph *g = eqnn_graph_make(c, 3, source, target, &o);
    eqnn_tensor *x = test_normal(c, 4, 5), *alpha = NULL;
    gat.weights = &alpha;
    eqnn_tensor *y = eqnn_gat_conv(x, NULL, g, "gat", 3, &gat);
    eqnn_tensor *h = eqnn_matmul_t(x, eqnn_parameter(c, "gat.lin.weight"), 0, 1);
    CHECK(eqnn_rows(alpha) == 3);
    CHECK_NEAR(eqnn_at(alpha, 0, 1) + eqnn_at(alpha, 1, 1), 1, test_eps(1e-14, 1e-6));
    for (int k = 0; k < 6; k++) {
        double a = eqnn_at(alpha, 0, k / 3), b = eqnn_at(alpha, 1, k / 3);
        CHECK_NEAR(eqnn_at(y, 0, k), a * eqnn_at(h, 0, k) + b * eqnn_at(h, 1, k),
                   test_eps(1e-13, 1e-5));
        CHECK_NEAR(eqnn_at(y, 1, k), eqnn_at(h, 2, k), test_eps(1e-14, 1e-6));
        CHECK_NEAR(eqnn_at(y, 2, k), 0, 0);
    }
}

TEST(gnn_is_its_formula)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *pos = atoms(c, 6), *more = test_normal(c, 6, 2);
    const eqnn_graph *g = eqnn_radius_graph(pos, 1.7, NULL);
    eqnn_gnn_opts o = { .channels = 5, .heads = 3, .hidden = 6, .out = 2, .lmax = 2,
                        .neighbours = 4, .x = more, .edge_scalars = two_scalars(pos, g) };
    eqnn_tensor *y = eqnn_gnn(pos, g, "net", &o);
    eqnn_tensor *Y = eqnn_spherical_harmonics(eqnn_edge_vectors(pos, g), 2, NULL);
    Y = eqnn_as(Y, NULL);
    eqnn_tensor *h = eqnn_concat(eqnn_scale(eqnn_scatter(Y, g), 0.5), more);
    Y = eqnn_concat(Y, o.edge_scalars);
    h = eqnn_enter(h, "net");
    for (int k = 1; k <= 2; k++)
        h = eqnn_gat_conv(h, Y, g, eqnn_format(c, "conv%d", k), 5, &(eqnn_gat_opts){ .heads = 3 });
    h = eqnn_gelu(eqnn_linear(h, "head.0", 6, NULL));
    h = eqnn_leave(eqnn_linear(h, "head.1", 2, NULL));
    CHECK_SAME(y, h, test_eps(1e-13, 1e-5));
    CHECK(eqnn_parameter_count(c) == 2 * 6 + 4);
}

typedef struct gat_case { const eqnn_graph *g; eqnn_gat_opts o; } gat_case;

static eqnn_tensor *run_gat(eqnn_tensor *const *x, int n, void *user)
{
    gat_case *k = (gat_case *)user;
    return eqnn_gat_conv(x[0], n > 1 ? x[1] : NULL, k->g, "gat", 3, &k->o);
}

TEST(gat_conv_derivatives)
{
    eqnn_ctx *c = test_context();
    gat_case k = { eqnn_radius_graph(atoms(c, 6), 2, NULL), { .heads = 2, .mean = 1, .slope = 1 } };
    eqnn_tensor *x[2] = { test_normal(c, 6, 4), test_normal(c, k.g->edges, 2) };
    CHECK_DERIVATIVES_OF(run_gat, x, 2, &k, 2);
    k.o.given_edges = 1;
    CHECK_DERIVATIVES_OF(run_gat, x, 2, &k, 1);
    CHECK(eqnn_cols(run_gat(x, 1, &k)) == 3);
}

/* What is left out is what the manual says: the same weights give the same numbers. */
TEST(defaults_of_attention)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *pos = atoms(c, 5), *x = labelled(test_normal(c, 5, 5), "2x0e+1x1o");
    const eqnn_graph *g = eqnn_radius_graph(pos, 2, NULL);
    eqnn_attention_opts o = { .q = "2x0e+1x1o", .out = "1x0e+1x1o+1x3o", .radius = 2 }, full = o;
    full.k = o.q, full.lmax = 3, full.basis = 10, full.hidden = 16, full.act = EQNN_SILU;
    eqnn_tensor *y = eqnn_attention(x, pos, g, "head", &o);
    CHECK_SAME(eqnn_attention(x, pos, g, "head", &full), y, 0);
    eqnn_multi_head_opts few = { .head = o }, heads = { .head = full, .heads = 8, .out = "1x1o" };
    y = eqnn_multi_head(x, pos, g, "heads", &few);
    CHECK_SAME(eqnn_multi_head(x, pos, g, "heads", &heads), y, 0);
    eqnn_gat_opts gat = { .heads = 1, .slope = 0.2 };
    eqnn_tensor *bare = eqnn_as(x, NULL);
    y = eqnn_gat_conv(bare, NULL, g, "gat", 3, NULL);
    CHECK_SAME(eqnn_gat_conv(bare, NULL, g, "gat", 3, &gat), y, 0);
    eqnn_gnn_opts gnn = { .channels = 256, .heads = 4, .hidden = 256, .out = 3, .lmax = 3,
                          .neighbours = 6 };
    y = eqnn_gnn(pos, g, "gnn", NULL);
    CHECK_SAME(eqnn_gnn(pos, g, "gnn", &gnn), y, 0);
    gnn.lmax = -1; /* 0: an edge has one number */
    CHECK(eqnn_gnn(pos, g, "flat", &gnn) != NULL);
    CHECK(eqnn_cols(eqnn_parameter(c, "flat.conv1.lin_edge.weight")) == 1);
}

/* The mean of the heads is that of their outputs side by side; without a bias there is none. */
TEST(gat_conv_of_mean_heads)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *x = test_normal(c, 5, 4), *mean = NULL;
    const eqnn_graph *g = eqnn_complete_graph(c, 5, NULL);
    eqnn_gat_opts o = { .heads = 3, .no_bias = 1 };
    eqnn_tensor *y = eqnn_gat_conv(x, NULL, g, "gat", 2, &o);
    for (int h = 0; h < 3; h++) {
        eqnn_tensor *one = eqnn_scale(eqnn_slice(y, 2 * h, 2), 1. / 3);
        mean = mean ? eqnn_add(mean, one) : one;
    }
    o.mean = 1;
    CHECK_SAME(eqnn_gat_conv(x, NULL, g, "gat", 2, &o), mean, test_eps(1e-14, 1e-6));
    CHECK(!eqnn_parameter(c, "gat.bias"));
}

/* exp as it stands underflows: a node whose exps are all 0 gets 0, and overflow shows. The same
   edge with the opposite logit does the other; in the equal form it counts as it should. */
TEST(raw_exponentials)
{
    eqnn_ctx *c = test_context();
    const double at[6] = { 0, 0, 0, 0.5, 0, 0 }, number[2] = { 2, 3 };
    eqnn_tensor *pos = labelled(eqnn_from_double(c, 2, 3, at), "1x1o"), *alpha = NULL;
    eqnn_tensor *x = eqnn_from_double(c, 2, 1, number);
    const eqnn_graph *g = eqnn_complete_graph(c, 2, NULL);
    eqnn_attention_opts o = { .q = "1x0e", .out = "1x0e+1x1o", .radius = 2, .weights = &alpha };
    int zeros = 0, overflows = 0;
    eqnn_attention(x, pos, g, "a", &o);
    for (int k = 0; k < 4; k++) {
        double w = k % 2 ? 1e9 : -1e9;
        eqnn_set(eqnn_parameter(c, "a.dot_product.weight"), &w);
        o.raw = k / 2;
        eqnn_tensor *y = eqnn_attention(x, pos, g, "a", &o);
        for (int e = 0; e < 2; e++) {
            double a = eqnn_at(alpha, e, 0);
            if (!o.raw) CHECK(a == 1);
            if (!o.raw) continue;
            zeros += a == 0 && eqnn_at(y, e, 0) == 0 && eqnn_at(y, e, 1) == 0;
            overflows += isnan(a);
        }
    }
    CHECK(zeros == 2 && overflows == 2);
}

/* A node that only edges beyond the radius enter gets nothing. */
TEST(edges_beyond_the_radius)
{
    eqnn_ctx *c = test_context();
    const double at[9] = { 0, 0, 0, 0.5, 0.1, 0, 0, 3, 0 };
    int source[] = { 1, 0, 1 }, target[] = { 0, 2, 2 };
    eqnn_graph_opts nodes = { .targets = 3 };
    const eqnn_graph *g = eqnn_graph_make(c, 3, source, target, &nodes);
    eqnn_tensor *pos = labelled(eqnn_from_double(c, 3, 3, at), "1x1o"), *alpha = NULL;
    eqnn_tensor *x = labelled(test_normal(c, 3, 4), "1x0e+1x1o");
    eqnn_attention_opts o = { .q = "1x0e", .out = "1x0e+1x1o", .radius = 2, .weights = &alpha };
    for (int k = 0; k < 4; k++) {
        o.raw = k % 2, o.clamp = k / 2;
        eqnn_tensor *y = eqnn_attention(x, pos, g, "a", &o);
        CHECK_NEAR(eqnn_at(alpha, 0, 0), 1, 1e-6);
        CHECK(eqnn_at(alpha, 1, 0) == 0 && eqnn_at(alpha, 2, 0) == 0);
        for (int i = 0; i < 4; i++) CHECK(eqnn_at(y, 2, i) == 0);
    }
}

TEST(attention_refuses)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *pos = atoms(c, 5), *x = test_normal(c, 4, 2), *alpha = NULL;
    const eqnn_graph *g = eqnn_radius_graph(pos, 2, NULL);
    eqnn_attention_opts o = small_head;
    eqnn_multi_head_opts many = { .head = small_head };
    CHECK(!eqnn_attention(x, pos, g, "a", &o));
    CHECK_ERROR(c, "4 rows of features for 5 sources");
    o.out = NULL;
    CHECK(!eqnn_attention(pos, pos, g, "a", &o));
    CHECK_ERROR(c, "must be given");
    o.out = "4x0o"; /* no product of a vector with harmonics */
    CHECK(!eqnn_attention(pos, pos, g, "a", &o));
    CHECK_ERROR(c, "reaches 4x0o");
    many.head.weights = &alpha;
    CHECK(!eqnn_multi_head(pos, pos, g, "b", &many));
    CHECK_ERROR(c, "those of one head");
    many.head.weights = NULL;
    CHECK(!eqnn_attention_network(pos, eqnn_graph_vectors(g, eqnn_edge_vectors(pos, g)), "n",
                                  &many));
    CHECK_ERROR(c, "attention_network: one layer only on a graph with vectors of its own");
    many.layers = many.moves = 1;
    many.out = "1x0e";
    CHECK(!eqnn_attention_network(pos, g, "n", &many));
    CHECK_ERROR(c, "where layers move positions it must be 1x1o");
    CHECK(!eqnn_gat_conv(x, NULL, g, "c", 3, NULL));
    CHECK_ERROR(c, "4 rows of features");
    CHECK(!eqnn_gat_conv(eqnn_slice_rows(test_normal(c, 5, 2), 0, 5), x, g, "c", 3, NULL));
    CHECK_ERROR(c, "4 of attributes");
    CHECK(!eqnn_network_2106(NULL, NULL, pos, NULL, "d", &small_network));
    CHECK_ERROR(c, "no graph");
    CHECK(!eqnn_gnn(pos, NULL, "e", NULL));
    CHECK_ERROR(c, "no graph");
}

TEST_MAIN
