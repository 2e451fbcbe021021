/* lietransformer.c - tests of eqnn_groups.h, section 8: attention between lifted points */
#include "lifts.h"

static const char *const kernels[] = { "mlp",  "dot_product_only", "location_only",
                                       "relative_position", "1210", "1211", "1212", "1220",
                                       "1221", "1222", "1230", "1231", "1232", "2210", "2211",
                                       "2212", "2220", "2221", "2222", "2230", "2231", "2232",
                                       NULL };
static const char *const ways[] = { "softmax", "dot_product", "norm_exp", NULL };

static eqnn_lie_attention_opts attention_of(const char *kernel, const char *way)
{
    eqnn_lie_attention_opts o;
    memset(&o, 0, sizeof o);
    o.kernel = kernel;
    o.attention = way;
    o.heads = 2;
    int code = kernel && (kernel[0] == '1' || kernel[0] == '2');
    if (!kernel || code || !strcmp(kernel, "mlp") || !strcmp(kernel, "location_only"))
        o.kernel_dim = 4;
    if (code && kernel[2] > '1') o.feature_dim = 2;
    return o;
}

static eqnn_lie_transformer_opts small_network(void)
{
    eqnn_lie_transformer_opts o;
    memset(&o, 0, sizeof o);
    o.attention = attention_of(NULL, NULL);
    o.cols = 8;
    o.layers = 2;
    o.out = 3;
    return o;
}

/* The same for an energy, which is one number */
static eqnn_lie_transformer_opts small_energy(void)
{
    eqnn_lie_transformer_opts o = small_network();
    o.out = 0;
    return o;
}

/* All pairs of n points, in examples of m */
static const eqnn_graph *complete(eqnn_ctx *c, int n, int m)
{
    eqnn_graph_opts o;
    int example[64];
    for (int i = 0; i < n; i++) example[i] = i / m;
    memset(&o, 0, sizeof o);
    o.example = n ? example : NULL;
    o.loops = 1;
    return eqnn_complete_graph(c, n, &o);
}

static double furthest(const eqnn_tensor *a, const eqnn_tensor *b)
{
    double d = 0;
    for (int i = 0; i < eqnn_rows(a); i++)
        for (int k = 0; k < eqnn_cols(a); k++)
            d = fmax(d, fabs(eqnn_at(a, i, k) - eqnn_at(b, i, k)));
    return a && b ? d : NAN;
}

/* ---- attention ------------------------------------------------------------------------------- */

typedef struct setting { const eqnn_graph *g; eqnn_lie_attention_opts o; } setting;

static eqnn_tensor *attend(eqnn_tensor *const *x, int n, void *user)
{
    const setting *s = (const setting *)user;
    return n == 2 ? eqnn_lie_attention(x[0], x[1], s->g, "m", &s->o) : NULL;
}

/* All kernels with all normalisations: first and second derivatives by features and by pairs, also
   of a graph where a node has no neighbours and another only one. */
TEST(derivatives_of_all_kernels)
{
    const int source[7] = { 0, 1, 2, 1, 2, 0, 3 }, target[7] = { 0, 0, 0, 1, 3, 3, 3 };
    for (int k = 0; kernels[k]; k++)
        for (int w = 0; ways[w]; w++) {
            if (kernels[k][0] < '3' && w) continue; /* the code says which */
            eqnn_ctx *c = test_context();
            eqnn_graph_opts go;
            memset(&go, 0, sizeof go);
            go.sources = go.targets = 4;
            go.keep = 1;
            setting s = { eqnn_graph_make(c, 7, source, target, &go),
                          attention_of(kernels[k], kernels[k][0] < '3' ? NULL : ways[w]) };
            eqnn_tensor *x[2] = { test_normal(c, 4, 4), test_normal(c, 7, 3) };
            CHECK(test_finite(attend(x, 2, &s)));
            CHECK_DERIVATIVES_OF(attend, x, 2, &s, sizeof(eqnn_real) == 8 ? 2 : 1);
            CHECK_OK(c);
            if (k > 3) continue;
            /* no neighbours: only the output's bias, whatever x is */
            eqnn_tensor *y = attend(x, 2, &s), *b = eqnn_parameter(c, "m.output_linear.bias");
            CHECK_SAME(eqnn_slice_rows(y, 2, 1), b, 1e-12);
        }
}

/* y = W_o (sum over j of softmax_j(q_i . k_j / sqrt(d)) v_j) + b_o of one head, number by number */
TEST(one_head_is_plain_attention)
{
    eqnn_ctx *c = test_context();
    const eqnn_graph *g = complete(c, 5, 5);
    eqnn_lie_attention_opts o = attention_of("dot_product_only", "softmax");
    o.heads = 1;
    eqnn_tensor *x = test_normal(c, 5, 6), *y = eqnn_lie_attention(x, NULL, g, "m", &o), *p[4];
    static const char *const names[] = { "kernel.feature_kernel.fc_q", "kernel.feature_kernel.fc_k",
                                         "input_linear", "output_linear" };
    eqnn_tensor *in = x;
    for (int i = 0; i < 4; i++) {
        if (i == 3) in = eqnn_matmul(eqnn_softmax(eqnn_scale(eqnn_matmul_t(p[0], p[1], 0, 1),
                                                             1 / sqrt(6.0))), p[2]);
        eqnn_tensor *W = eqnn_parameter(c, eqnn_format(c, "m.%s.weight", names[i]));
        p[i] = eqnn_matmul_t(in, W, 0, 1);
        p[i] = eqnn_add(p[i], eqnn_parameter(c, eqnn_format(c, "m.%s.bias", names[i])));
    }
    CHECK_SAME(y, p[3], test_eps(1e-14, 1e-6));
}

/* Heads do not see each other: what the first head's values are does not change the second's. */
TEST(heads_are_apart)
{
    eqnn_ctx *c = test_context();
    const eqnn_graph *g = complete(c, 4, 4);
    eqnn_tensor *x = test_normal(c, 4, 8), *pairs = test_normal(c, 16, 3), *before, *after;
    eqnn_lie_attention_opts o = attention_of("mlp", "softmax");
    o.logits = &before;
    eqnn_lie_attention(x, pairs, g, "m", &o);
    const char *name = "m.kernel.location_kernel.LinNormAct_2.linear.module.weight";
    eqnn_tensor *W = eqnn_parameter(c, name); /* [2 * 4, 4]: rows of head 0 first */
    double w[32];
    for (int i = 0; i < 32; i++) w[i] = eqnn_at(W, i / 4, i % 4) + (i < 16 ? 0.3 : 0);
    eqnn_set(W, w);
    o.logits = &after;
    eqnn_lie_attention(x, pairs, g, "m", &o);
    CHECK_SAME(eqnn_slice(before, 1, 1), eqnn_slice(after, 1, 1), 0);
    CHECK(furthest(eqnn_slice(before, 0, 1), eqnn_slice(after, 0, 1)) > 1e-3);
    CHECK_OK(c);
}

/* Twice the edges, at most twice the memory (and a little). */
TEST(memory_is_linear_in_edges)
{
    size_t used[2];
    for (int k = 0; k < 2; k++) {
        eqnn_ctx *c = test_context();
        int n = 400 << k;
        eqnn_tensor *pos = test_normal(c, n, 3);
        const eqnn_graph *g = eqnn_knn_graph(pos, 6, NULL);
        eqnn_tensor *pairs = eqnn_sub(eqnn_gather_target(pos, g), eqnn_gather(pos, g));
        eqnn_lie_attention_opts o = attention_of("mlp", "softmax");
        size_t before = eqnn_memory_use(c).step;
        eqnn_tensor *x = test_normal(c, n, 16), *y = eqnn_lie_attention(x, pairs, g, "m", &o);
        eqnn_backward(eqnn_sum(y));
        used[k] = eqnn_memory_use(c).step - before;
        CHECK_OK(c);
    }
    CHECK((double)used[1] < 2.2 * (double)used[0]);
}

/* ---- the network ----------------------------------------------------------------------------- */

static eqnn_tensor *network(eqnn_ctx *c, const eqnn_lie *G, eqnn_tensor *u, eqnn_tensor *q, int m,
                            const eqnn_lie_transformer_opts *o)
{
    int n = eqnn_rows(u);
    const eqnn_graph *g = complete(c, n, m);
    eqnn_tensor *x = eqnn_normal(c, "features", n, 2), *pairs = eqnn_lie_pairs(G, u, q, g);
    return eqnn_lie_transformer(x, pairs, g, "m", o);
}

/* A group element before all lifted points changes nothing; for groups without random lifts the
   points may be moved instead. */
TEST(invariance)
{
    static const char *const names[] = { "T(2)",  "T(3)",  "Tx(2)", "SO(2)", "RxSO(2)", "Rx",
                                         "SE(2)", "SO(3)", "SE(3)", NULL };
    double errors[9];
    for (int k = 0; names[k]; k++) {
        eqnn_ctx *c = test_context();
        const eqnn_lie *G = eqnn_lie_make(c, names[k]);
        eqnn_tensor *u, *q = NULL, *v = NULL, *p = NULL;
        eqnn_lie_transformer_opts o = small_network();
        eqnn_tensor *pos = test_normal(c, 10, eqnn_lie_point_dim(G));
        eqnn_tensor *h = eqnn_lie_exp(G, test_normal(c, 1, eqnn_lie_dim(G)));
        CHECK(eqnn_lie_lift(G, pos, "lift", 1, &u, &q));
        int random = eqnn_lie_draws(G) > 0;
        if (random) v = eqnn_lie_product(G, h, u), p = q;
        else CHECK(eqnn_lie_lift(G, eqnn_lie_act(G, h, pos), "lift", 1, &v, &p));
        network(c, G, u, q, 5, &o);
        lifts_louder(c);
        eqnn_tensor *y = network(c, G, u, q, 5, &o), *z = network(c, G, v, p, 5, &o);
        CHECK(eqnn_lie_lift(G, eqnn_square(pos), "lift", 1, &v, &p));
        eqnn_tensor *other = network(c, G, v, p, 5, &o);
        double size = furthest(y, eqnn_zeros(c, 2, 3));
        errors[k] = furthest(y, z) / size;
        test_note("%s: other points change %.1e", names[k], furthest(y, other) / size);
        CHECK(errors[k] <= test_eps(1e-13, 1e-5));
        CHECK(furthest(y, other) / size > 1e-3);
        CHECK_OK(c);
    }
    test_show("LieTransformer, moved by its group, changes by", names, errors, 9);
}

/* Values, slopes, and slopes of slopes by the weights do not depend on how many edges the network
   of the location sees at a time; with a norm's statistics it sees all. */
TEST(edges_in_runs_are_as_all_at_once)
{
    static const char *const names[] = { "mlp", "location_only", "2211" };
    for (int k = 0; k < 9; k++) {
        eqnn_ctx *c = test_context();
        setting s = { complete(c, 9, 5), attention_of(names[k / 3], "dot_product") };
        eqnn_tensor *x[2] = { test_normal(c, 9, 8), test_normal(c, s.g->edges, 3) };
        eqnn_tensor *y[2], *dy[2][2], *dw[2][64];
        int n = 0;
        s.o.kernel_norm = k % 3 > 0;
        eqnn_training(c, k % 3 > 1);
        attend(x, 2, &s);
        for (int i = 0; i < 2; i++) {
            s.o.run = i ? 16 : -1; /* of 41 edges */
            eqnn_zero_gradients(c);
            y[i] = attend(x, 2, &s);
            CHECK(eqnn_grads(eqnn_sum(eqnn_square(y[i])), x, 2, dy[i]));
            CHECK(eqnn_backward(eqnn_sum(eqnn_square(dy[i][1]))));
            n = eqnn_parameter_count(c);
            for (int p = 0; p < n && p < 64; p++) dw[i][p] = eqnn_gradient(eqnn_parameter_at(c, p));
        }
        CHECK(n > 0 && n < 64);
        CHECK_SAME(y[0], y[1], test_eps(1e-14, 1e-6));
        for (int p = 0; p < 2; p++) CHECK_SAME(dy[0][p], dy[1][p], test_eps(1e-13, 1e-5));
        for (int p = 0; p < n; p++) CHECK_SAME(dw[0][p], dw[1][p], test_eps(1e-12, 1e-4));
        CHECK_DERIVATIVES_OF(attend, x, 2, &s, 2);
        CHECK_OK(c);
    }
}

/* Of more than 65,536 edges not everything is remembered, unless it is asked for. */
TEST(many_edges_go_in_runs)
{
    double peak[2];
    for (int i = 0; i < 2; i++) {
        eqnn_opts context = test_opts();
        eqnn_ctx *c = eqnn_make(&context);
        eqnn_graph_opts all;
        memset(&all, 0, sizeof all);
        all.loops = 1;
        const eqnn_graph *g = eqnn_complete_graph(c, 257, &all);
        eqnn_lie_attention_opts o = attention_of("mlp", NULL);
        o.run = -i, o.kernel_dim = 16;
        eqnn_tensor *x = test_normal(c, 257, 4), *pairs = test_normal(c, g->edges, 2);
        eqnn_backward(eqnn_sum(eqnn_square(eqnn_lie_attention(x, pairs, g, "m", &o))));
        peak[i] = (double)eqnn_memory_use(c).step_peak;
        CHECK_OK(c);
        eqnn_free(c);
    }
    test_note("%.0f bytes, %.0f when all is remembered", peak[0], peak[1]);
    CHECK(peak[0] < 0.5 * peak[1]);
}

static eqnn_tensor *attended(const eqnn_lie *g, const lifts *l)
{
    eqnn_lie_transformer_opts o = small_network();
    o.out = 1;
    return eqnn_lie_transformer(l->values, eqnn_lie_pairs(g, l->u, l->q, l->graph), l->graph, "m",
                                &o);
}

TEST(law_of_outputs_does_not_change) { lifts_check(attended); }

/* What is no symmetry of the group is seen: T(2) and a rotation. */
TEST(other_motions_are_seen)
{
    eqnn_ctx *c = test_context();
    const eqnn_lie *G = eqnn_lie_make(c, "T(2)"), *H = eqnn_lie_make(c, "SO(2)");
    eqnn_tensor *pos = test_normal(c, 5, 2), *turn = eqnn_lie_exp(H, eqnn_full(c, 1, 1, 1));
    eqnn_lie_transformer_opts o = small_network();
    eqnn_tensor *y = network(c, G, pos, NULL, 5, &o);
    CHECK(furthest(y, network(c, G, eqnn_lie_act(H, turn, pos), NULL, 5, &o)) > 1e-5);
}

/* Turns by 2 pi k / n of SE(2)_canonical are exact with its fixed lift, of n samples. */
TEST(finite_turns)
{
    eqnn_ctx *c = test_context();
    const eqnn_lie *G = eqnn_lie_make(c, "SE(2)_canonical(4)");
    eqnn_lie_transformer_opts o = small_network();
    eqnn_tensor *pos = test_normal(c, 5, 2), *u, *v, *x = test_normal(c, 5, 2), *part[2];
    double k[20];
    for (int i = 0; i < 20; i++) k[i] = i % 4 / 4.0;
    eqnn_tensor *draws = eqnn_from_double(c, 20, 1, k);
    part[0] = eqnn_shift(eqnn_neg(eqnn_slice(pos, 1, 1)), 0.7);
    part[1] = eqnn_shift(eqnn_slice(pos, 0, 1), -0.2);
    CHECK(eqnn_lie_lift_given(G, pos, draws, 4, &u, NULL));
    CHECK(eqnn_lie_lift_given(G, eqnn_concat_n(part, 2), draws, 4, &v, NULL));
    const eqnn_graph *g = complete(c, 20, 20);
    x = eqnn_repeat(x, 4);
    eqnn_tensor *y = eqnn_lie_transformer(x, eqnn_lie_pairs(G, u, NULL, g), g, "m", &o);
    eqnn_tensor *z = eqnn_lie_transformer(x, eqnn_lie_pairs(G, v, NULL, g), g, "m", &o);
    CHECK_SAME(y, z, test_eps(1e-13, 1e-5));
    CHECK_OK(c);
}

/* Forces of a potential, and their derivatives, through lift and pairs. */
static eqnn_tensor *energy(eqnn_tensor *const *x, int n, void *user)
{
    const eqnn_lie *G = (const eqnn_lie *)user;
    eqnn_ctx *c = eqnn_context(x[0]);
    eqnn_lie_transformer_opts o = small_network();
    eqnn_tensor *u, *q = NULL;
    if (n != 1 || !eqnn_lie_lift(G, x[0], "lift", 1, &u, &q)) return NULL;
    return network(c, G, u, q, 4, &o);
}

TEST(derivatives_by_points)
{
    static const char *const names[] = { "T(2)", "SO(2)", "SE(2)", "SE(3)", NULL };
    for (int k = 0; names[k]; k++) {
        eqnn_ctx *c = test_context();
        const eqnn_lie *G = eqnn_lie_make(c, names[k]);
        eqnn_tensor *x = test_normal(c, 4, eqnn_lie_point_dim(G));
        CHECK_DERIVATIVES_OF(energy, &x, 1, (void *)(uintptr_t)G, sizeof(eqnn_real) == 8 ? 2 : 1);
    }
}

/* Every norm, head and pool: finite values and gradients, the same twice. */
TEST(all_forms_of_the_network)
{
    static const char *const norms[] = { "none",      "layer_pre",  "layer_post",
                                         "batch_pre", "batch_post", NULL };
    static const char *const heads[] = { "none", "layer", "batch", NULL };
    for (int k = 0; norms[k]; k++)
        for (int h = 0; h < 4; h++) {
            eqnn_ctx *c = test_context();
            const eqnn_lie *G = eqnn_lie_make(c, "T(2)");
            eqnn_lie_transformer_opts o = small_network();
            o.norm = norms[k];
            if (h < 3) o.head_norm = heads[h];
            else o.head = "lieconv";
            o.max_pool = h & 1;
            o.squash = k & 1;
            o.attention.kernel_norm = k == 3;
            eqnn_training(c, 1);
            eqnn_tensor *pos = test_normal(c, 12, 2), *y = network(c, G, pos, NULL, 4, &o);
            CHECK(test_finite(y));
            CHECK(eqnn_rows(y) == 3 && eqnn_cols(y) == 3);
            CHECK((eqnn_parameter(c, "m.net.4.0.weight") != NULL) == (h == 1 || h == 2));
            CHECK((eqnn_parameter(c, "m.net.4.6.running_mean") != NULL) == (h == 2));
            CHECK_SAME(y, network(c, G, pos, NULL, 4, &o), 0);
            CHECK(eqnn_backward(eqnn_sum(eqnn_square(y))));
            for (int i = 0; i < eqnn_parameter_count(c); i++)
                CHECK(test_finite(eqnn_gradient(eqnn_parameter_at(c, i))));
            CHECK_OK(c);
        }
}

/* The batch norm: training takes the batch's statistics and files them for later. */
TEST(batch_norm_files_its_statistics)
{
    eqnn_ctx *c = test_context();
    eqnn_lie_transformer_opts o;
    memset(&o, 0, sizeof o);
    o.attention = attention_of(NULL, NULL);
    o.norm = "batch_pre";
    eqnn_training(c, 1);
    eqnn_tensor *x = test_normal(c, 6, 8), *pairs = test_normal(c, 36, 2);
    eqnn_lie_attention_block(x, pairs, complete(c, 6, 6), "m", &o);
    eqnn_commit(c);
    eqnn_tensor *mean = eqnn_parameter(c, "m.bn_ema.running_mean");
    eqnn_tensor *var = eqnn_parameter(c, "m.bn_ema.running_var");
    eqnn_tensor *centred = eqnn_sub(x, eqnn_mean_rows(x));
    CHECK_SAME(mean, eqnn_scale(eqnn_mean_rows(x), 0.1), test_eps(1e-15, 1e-6));
    eqnn_tensor *want = eqnn_scale(eqnn_sum_rows(eqnn_square(centred)), 0.1 / 5);
    CHECK_SAME(var, eqnn_shift(want, 0.9), test_eps(1e-14, 1e-6));
    CHECK_OK(c);
}

/* Published sizes (springs): T(2), width 160, 5 layers; SE(2)_canonical, width 80, 3 layers. */
TEST(published_sizes)
{
    for (int k = 0; k < 2; k++) {
        eqnn_ctx *c = test_context();
        const eqnn_lie *G = eqnn_lie_make(c, k ? "SE(2)_canonical(2)" : "T(2)");
        eqnn_lie_transformer_opts o;
        eqnn_tensor *u, *q;
        memset(&o, 0, sizeof o);
        o.attention.attention = "dot_product";
        if (k) o.cols = 80, o.layers = 3;
        CHECK(eqnn_lie_lift(G, test_normal(c, 2, 2), "lift", k ? 2 : 1, &u, &q));
        network(c, G, u, q, 2 << k, &o);
        CHECK(eqnn_parameter_size(c) == (k ? 139353u : 841641u));
        CHECK_OK(c);
    }
}

/* Published sizes of 512 columns and 6 layers: molecules (15 features, one number), constellations
   (17 * 2 - 1 distances, a constant, or 10 moments; 4 * 3 numbers). By a look at one point. */
TEST(published_sizes_for_molecules_and_constellations)
{
    static const struct { const char *group; int in, out; size_t size; } cases[] = {
        { "SE(3)", 15, 1, 10021169 },  { "Trivial(3)", 15, 1, 10021169 },
        { "T(3)", 15, 1, 10018865 },   { "SO(3)", 15, 1, 10020401 },
        { "SE(2)", 33, 12, 10033724 }, { "SE(2)", 1, 12, 10017340 },
        { "SE(2)", 10, 12, 10021948 }, { "T(2)", 33, 12, 10032956 },
        { "T(2)", 1, 12, 10016572 },   { "T(2)", 10, 12, 10021180 }
    };
    for (size_t k = 0; k < sizeof cases / sizeof cases[0]; k++) {
        eqnn_opts context = test_opts();
        eqnn_lie_transformer_opts o;
        eqnn_tensor *u, *q;
        memset(&o, 0, sizeof o);
        o.cols = 512, o.layers = 6, o.out = cases[k].out;
        eqnn_ctx *c = eqnn_make(&context);
        const eqnn_lie *G = eqnn_lie_make(c, cases[k].group);
        const eqnn_graph *g = complete(c, 1, 1);
        eqnn_lie_lift(G, test_normal(c, 1, eqnn_lie_point_dim(G)), "lift", 1, &u, &q);
        eqnn_lie_transformer(test_normal(c, 1, cases[k].in), eqnn_lie_pairs(G, u, q, g), g, "m",
                             &o);
        CHECK(eqnn_parameter_size(c) == cases[k].size);
        CHECK_OK(c);
        eqnn_free(c); /* 40 megabytes */
    }
}

/* ---- particles in motion --------------------------------------------------------------------- */

static eqnn_particles particles_of(eqnn_ctx *c, int n, int m)
{
    eqnn_particles p;
    p.graph = complete(c, n, m);
    p.constants = eqnn_uniform(c, "constants", n, 2);
    p.constants = eqnn_shift(p.constants, 0.5);
    return p;
}

/* With centred positions forces add up to nothing; where turns change nothing, torques too. */
TEST(momentum_and_angular_momentum_are_kept)
{
    static const char *const names[] = { "T(2)", "SO(2)", "SE(2)_canonical(2)", "SE(2)", NULL };
    for (int k = 0; names[k]; k++) {
        eqnn_ctx *c = test_context();
        const eqnn_lie *G = eqnn_lie_make(c, names[k]);
        eqnn_particles p = particles_of(c, 8, 4);
        eqnn_lie_transformer_opts o = small_energy();
        eqnn_tensor *z = test_normal(c, 8, 4), *torque;
        o.attention.attention = "dot_product";
        o.norm = "none";
        o.head = "lieconv";
        eqnn_tensor *H = eqnn_lie_transformer_energy(z, &p, G, k > 1 ? 2 : 1, "m", &o);
        eqnn_tensor *dz = eqnn_hamiltonian_field(H, z), *f = eqnn_slice(dz, 2, 2);
        CHECK(eqnn_rows(H) == 2 && eqnn_cols(H) == 1 && test_finite(dz));
        eqnn_tensor *mass = eqnn_slice(p.constants, 0, 1);
        CHECK_SAME(eqnn_slice(dz, 0, 2), eqnn_div(eqnn_slice(z, 2, 2), mass),
                   test_eps(1e-15, 1e-6));
        CHECK_SAME(eqnn_pool_sum(f, p.graph), eqnn_zeros(c, 2, 2), test_eps(1e-17, 1e-9));
        test_note("%s: forces %.1e", names[k], furthest(f, eqnn_zeros(c, 8, 2)));
        CHECK(furthest(f, eqnn_zeros(c, 8, 2)) > 1e-4);
        torque = eqnn_mul(eqnn_slice(z, 0, 1), eqnn_slice(f, 1, 1));
        torque = eqnn_sub(torque, eqnn_mul(eqnn_slice(z, 1, 1), eqnn_slice(f, 0, 1)));
        torque = eqnn_pool_sum(torque, p.graph);
        if (k == 1) CHECK_SAME(torque, eqnn_zeros(c, 2, 1), test_eps(1e-17, 1e-9));
        if (k == 0) CHECK(furthest(torque, eqnn_zeros(c, 2, 1)) > 1e-6);
        CHECK_OK(c);
    }
}

/* SE(2)_canonical(4), 4 samples: the energy of a system that is moved and turned by a quarter. */
TEST(energy_of_a_quarter_turn)
{
    eqnn_ctx *c = test_context();
    const eqnn_lie *G = eqnn_lie_make(c, "SE(2)_canonical(4)");
    eqnn_particles p = particles_of(c, 5, 5);
    eqnn_lie_transformer_opts o = small_energy();
    eqnn_tensor *z = test_normal(c, 5, 4), *part[4], *H, *turned;
    part[0] = eqnn_shift(eqnn_neg(eqnn_slice(z, 1, 1)), 0.7);
    part[1] = eqnn_shift(eqnn_slice(z, 0, 1), -0.2);
    part[2] = eqnn_neg(eqnn_slice(z, 3, 1));
    part[3] = eqnn_slice(z, 2, 1);
    H = eqnn_lie_transformer_energy(z, &p, G, 4, "m", &o);
    turned = eqnn_lie_transformer_energy(eqnn_concat_n(part, 4), &p, G, 4, "m", &o);
    CHECK_SAME(H, turned, test_eps(1e-13, 1e-5));
    CHECK_OK(c);
}

static eqnn_tensor *motion(eqnn_tensor *const *z, int n, void *user)
{
    eqnn_ctx *c = eqnn_context(z[0]);
    eqnn_particles p = particles_of(c, 3, 3);
    eqnn_lie_transformer_opts o = small_energy();
    const eqnn_lie *G = (const eqnn_lie *)user;
    eqnn_tensor *H = n == 1 ? eqnn_lie_transformer_energy(z[0], &p, G, 2, "m", &o) : NULL;
    return H ? eqnn_hamiltonian_field(H, z[0]) : NULL;
}

TEST(derivatives_of_motion)
{
    eqnn_ctx *c = test_context();
    const eqnn_lie *G = eqnn_lie_make(c, "SE(2)");
    eqnn_tensor *z = test_normal(c, 3, 4);
    CHECK_DERIVATIVES_OF(motion, &z, 1, (void *)(uintptr_t)G, 1);
    CHECK_OK(c);
}

/* ---- sets ------------------------------------------------------------------------------------ */

static eqnn_set_opts small_set(int inducing)
{
    eqnn_set_opts o;
    memset(&o, 0, sizeof o);
    o.cols = 8;
    o.heads = 2;
    o.encoders = 2;
    o.decoders = 1;
    o.seeds = 2;
    o.out = 3;
    o.norm = 1;
    o.inducing = inducing;
    return o;
}

/* Of that what a single attention uses */
static eqnn_set_opts small_attention(void)
{
    eqnn_set_opts o;
    memset(&o, 0, sizeof o);
    o.cols = 8;
    o.heads = 2;
    o.norm = 1;
    return o;
}

typedef struct set_setting { const eqnn_graph *g; eqnn_set_opts o; } set_setting;

static eqnn_tensor *set_listen(eqnn_tensor *const *x, int n, void *user)
{
    const set_setting *s = (const set_setting *)user;
    return n == 2 ? eqnn_set_attention(x[0], x[1], s->g, "m", &s->o) : NULL;
}

TEST(set_attention_derivatives)
{
    const int source[5] = { 0, 1, 2, 1, 2 }, target[5] = { 0, 0, 0, 1, 1 };
    eqnn_ctx *c = test_context();
    eqnn_graph_opts go;
    memset(&go, 0, sizeof go);
    go.sources = 3;
    go.targets = 2;
    go.keep = 1;
    set_setting s = { eqnn_graph_make(c, 5, source, target, &go), small_attention() };
    eqnn_tensor *x[2] = { test_normal(c, 2, 3), test_normal(c, 3, 4) };
    CHECK_DERIVATIVES_OF(set_listen, x, 2, &s, sizeof(eqnn_real) == 8 ? 2 : 1);
    CHECK_OK(c);
}

static eqnn_tensor *set_listens(eqnn_tensor *const *x, int n, void *user)
{
    const set_setting *s = (const set_setting *)user;
    return n == 1 ? eqnn_set_attention(x[0], x[0], s->g, "m", &s->o) : NULL;
}

/* Examples in which everyone hears everyone are products of matrices: the same as edge by edge. */
TEST(everyone_hears_everyone)
{
    eqnn_ctx *c = test_context();
    int example[17] = { 0, 0, 0, 0, 0, 1, 1, 1, 3, 3, 3, 3, 3, 3, 3, 3, 3 };
    eqnn_graph_opts go;
    memset(&go, 0, sizeof go);
    go.example = example, go.examples = 4, go.loops = 1, go.keep = 1;
    const eqnn_graph *g = eqnn_complete_graph(c, 17, &go);
    eqnn_graph edges = *g;
    edges.once = 0; /* nobody knows whether edges stand there twice */
    set_setting by_edges = { &edges, small_attention() }, at_once = { g, small_attention() };
    eqnn_tensor *x = test_normal(c, 17, 4), *y[2], *dx[2], *ddx[2];
    for (int k = 0; k < 2; k++) {
        y[k] = set_listens(&x, 1, k ? &by_edges : &at_once);
        dx[k] = eqnn_grad(eqnn_sum(eqnn_square(y[k])), x);
        ddx[k] = eqnn_grad(eqnn_sum(eqnn_square(dx[k])), x);
    }
    CHECK(g->once && eqnn_rows(y[0]) == 17);
    CHECK_SAME(y[0], y[1], test_eps(1e-13, 1e-5));
    CHECK_SAME(dx[0], dx[1], test_eps(1e-12, 1e-4));
    CHECK_SAME(ddx[0], ddx[1], test_eps(1e-10, 1e-3));
    CHECK_DERIVATIVES_OF(set_listens, &x, 1, &at_once, sizeof(eqnn_real) == 8 ? 2 : 1);
    const int source[2] = { 1, 1 }, target[2] = { 0, 0 };
    memset(&go, 0, sizeof go);
    go.sources = go.targets = 2;
    const eqnn_graph *twice = eqnn_graph_make(c, 2, source, target, &go);
    CHECK(twice && !twice->once);
    CHECK_OK(c);
}

/* An example's result is the same in any order of its points, and alone or beside others. */
TEST(sets_have_no_order)
{
    for (int inducing = 0; inducing < 4; inducing += 3) {
        eqnn_ctx *c = test_context();
        eqnn_set_opts o = small_set(inducing);
        eqnn_tensor *x = test_normal(c, 8, 2);
        eqnn_tensor *y = eqnn_set_transformer(x, complete(c, 8, 4), "m", &o);
        const int order[8] = { 2, 1, 3, 0, 4, 7, 5, 6 };
        eqnn_tensor *turned = eqnn_take(x, eqnn_ints_make(c, 8, order, 8, 0));
        CHECK(eqnn_rows(y) == 4 && eqnn_cols(y) == 3);
        CHECK_SAME(eqnn_set_transformer(turned, complete(c, 8, 4), "m", &o), y,
                   test_eps(1e-14, 1e-5));
        eqnn_tensor *z = eqnn_slice_rows(x, 4, 4);
        CHECK_SAME(eqnn_set_transformer(z, complete(c, 4, 4), "m", &o), eqnn_slice_rows(y, 2, 2),
                   test_eps(1e-14, 1e-5));
        CHECK(furthest(eqnn_slice_rows(y, 0, 2), eqnn_slice_rows(y, 2, 2)) > 1e-4);
        CHECK(test_finite(eqnn_set_transformer(test_normal(c, 1, 2), complete(c, 1, 1), "m", &o)));
        CHECK(eqnn_set_transformer(eqnn_zeros(c, 0, 2), complete(c, 0, 1), "m", &o) != NULL);
        CHECK_OK(c);
    }
}

/* The finite group's transformer: its published size; a quarter turn and a shift change nothing. */
TEST(finite_transformer)
{
    eqnn_ctx *c = test_context();
    const eqnn_lie *G = eqnn_lie_make(c, "SE(2)_canonical(4)"), *H = eqnn_lie_make(c, "SE(2)");
    const double a[3] = { 2 * atan(1), 0.7, -0.2 };
    eqnn_finite_opts o;
    memset(&o, 0, sizeof o);
    o.out = 12;
    for (int way = 0; way < 3; way++) {
        eqnn_tensor *pos = test_normal(c, 6, 2), *u, *v, *x = test_normal(c, 6, 5), *y, *z;
        eqnn_tensor *h = eqnn_lie_exp(H, eqnn_from_double(c, 1, 3, a));
        const eqnn_graph *g = complete(c, 24, 12);
        const char *name = way < 2 ? "m" : "constant";
        CHECK(eqnn_lie_lift(G, pos, "lift", 4, &u, NULL));
        CHECK(eqnn_lie_lift(G, eqnn_lie_act(H, h, pos), "lift", 4, &v, NULL));
        x = way < 2 ? eqnn_repeat(x, 4) : NULL;
        o.dot_product = way == 1;
        y = eqnn_finite_transformer(x, eqnn_lie_pairs(G, u, NULL, g), g, name, &o);
        if (way == 0) CHECK(eqnn_parameter_size(c) == 299788);
        z = eqnn_finite_transformer(x, eqnn_lie_pairs(G, v, NULL, g), g, name, &o);
        CHECK_SAME(y, z, test_eps(1e-13, 1e-4));
        CHECK(eqnn_rows(y) == 2 && eqnn_cols(y) == 12 && test_finite(y));
        CHECK_OK(c);
    }
    const eqnn_graph *g = complete(c, 0, 1);
    CHECK(eqnn_finite_transformer(NULL, eqnn_zeros(c, 0, 3), g, "constant", &o) != NULL);
    CHECK_OK(c);
    g = complete(c, 2, 2);
    CHECK(!eqnn_finite_transformer(NULL, eqnn_zeros(c, 3, 3), g, "constant", &o));
    CHECK_ERROR(c, "4 edges");
    o.heads = 3;
    CHECK(!eqnn_finite_transformer(NULL, eqnn_zeros(c, 4, 3), g, "constant", &o));
    CHECK_ERROR(c, "128 columns for 3 heads");
}

TEST(published_size_of_set_transformer)
{
    eqnn_ctx *c = test_context();
    eqnn_set_opts o;
    memset(&o, 0, sizeof o);
    o.seeds = 4;
    o.out = 3;
    eqnn_set_transformer(test_normal(c, 3, 2), complete(c, 3, 3), "m", &o);
    CHECK(eqnn_parameter_size(c) == 546947);
    CHECK_OK(c);
}

/* ---- edges of use ---------------------------------------------------------------------------- */

/* Nothing at all, one point, an example without points; the order of points does not matter. */
TEST(zero_one_many)
{
    eqnn_ctx *c = test_context();
    const eqnn_lie *G = eqnn_lie_make(c, "T(2)");
    eqnn_lie_transformer_opts o = small_network();
    CHECK(test_finite(network(c, G, test_normal(c, 1, 2), NULL, 1, &o)));
    eqnn_tensor *none = eqnn_zeros(c, 0, 2), *y = network(c, G, none, NULL, 1, &o);
    CHECK_OK(c);
    CHECK(y && eqnn_cols(y) == 3);
    eqnn_graph_opts go;
    const int example[3] = { 0, 2, 2 };
    memset(&go, 0, sizeof go);
    go.example = example;
    go.loops = 1;
    const eqnn_graph *g = eqnn_complete_graph(c, 3, &go);
    eqnn_tensor *pos = test_normal(c, 3, 2), *x = test_normal(c, 3, 2);
    y = eqnn_lie_transformer(x, eqnn_lie_pairs(G, pos, NULL, g), g, "m", &o);
    CHECK(eqnn_rows(y) == 3 && test_finite(y));
    const int order[3] = { 0, 2, 1 };
    eqnn_ints *turned = eqnn_ints_make(c, 3, order, 3, 0);
    pos = eqnn_take(pos, turned);
    x = eqnn_take(x, turned);
    CHECK_SAME(eqnn_lie_transformer(x, eqnn_lie_pairs(G, pos, NULL, g), g, "m", &o), y,
               test_eps(1e-14, 1e-6));
    CHECK_OK(c);
}

/* Squashed pairs p are p tanh(s / 7) / s with s = |p| + 1e-6; the maximum over nodes is no mean,
   for either head. */
TEST(squash_and_maximum_by_formula)
{
    static const char *const heads[2] = { "model_1", "lieconv" };
    eqnn_ctx *c = test_context();
    const eqnn_graph *g = complete(c, 3, 3);
    eqnn_tensor *x = test_normal(c, 3, 4), *pairs = test_normal(c, 9, 2);
    double p[18];
    for (int e = 0; e < 9; e++) {
        double a = eqnn_at(pairs, e, 0), b = eqnn_at(pairs, e, 1), s = hypot(a, b) + 1e-6;
        p[2 * e] = a * tanh(s / 7) / s;
        p[2 * e + 1] = b * tanh(s / 7) / s;
    }
    eqnn_lie_transformer_opts o = small_network();
    eqnn_tensor *want = eqnn_lie_transformer(x, eqnn_from_double(c, 9, 2, p), g, "m", &o);
    o.squash = 1;
    CHECK_SAME(eqnn_lie_transformer(x, pairs, g, "m", &o), want, test_eps(1e-14, 1e-6));
    for (int k = 0; k < 2; k++) {
        o.head = heads[k], o.max_pool = 0;
        eqnn_tensor *mean = eqnn_lie_transformer(x, pairs, g, heads[k], &o);
        o.max_pool = 1;
        CHECK(furthest(eqnn_lie_transformer(x, pairs, g, heads[k], &o), mean) > 1e-3);
    }
    eqnn_set_opts set = { .cols = 8, .heads = 2, .inducing = 2 }; /* a row for each example */
    CHECK(eqnn_rows(eqnn_set_transformer(x, g, "set", &set)) == 1);
    eqnn_tensor *few = eqnn_parameter(c, "set.enc_layers.0.module.I");
    CHECK(furthest(eqnn_slice_rows(few, 0, 1), eqnn_slice_rows(few, 1, 1)) > 1e-3);
    CHECK_OK(c);
}

/* Coincident points have pairs of zeros, squashed ones too: values and gradients are finite. */
TEST(coincident_points)
{
    eqnn_ctx *c = test_context();
    const eqnn_lie *G = eqnn_lie_make(c, "SE(3)");
    eqnn_lie_transformer_opts o = small_network();
    eqnn_tensor *pos = eqnn_zeros(c, 3, 3), *u;
    o.squash = 1;
    eqnn_lie_lift_given(G, pos, eqnn_full(c, 3, 4, 0.5), 1, &u, NULL);
    eqnn_tensor *y = network(c, G, u, NULL, 3, &o);
    CHECK(test_finite(y));
    CHECK(test_finite(eqnn_grad(eqnn_sum(y), pos)));
    CHECK_OK(c);
}

TEST(bad_input)
{
    eqnn_ctx *c = test_context();
    const eqnn_graph *g = complete(c, 3, 3);
    eqnn_tensor *x = eqnn_zeros(c, 3, 4), *pairs = eqnn_zeros(c, 9, 2);
    eqnn_lie_attention_opts o = attention_of("mlp", "softmax");
    CHECK(!eqnn_lie_attention(NULL, pairs, g, "m", &o));
    CHECK(!eqnn_lie_attention(x, NULL, g, "m", &o));
    CHECK_ERROR(c, "missing");
    CHECK(!eqnn_lie_attention(x, eqnn_zeros(c, 8, 2), g, "m", &o));
    CHECK_ERROR(c, "for 9 edges");
    CHECK(!eqnn_lie_attention(eqnn_zeros(c, 4, 4), pairs, g, "m", &o));
    CHECK_ERROR(c, "4 rows of features");
    CHECK(!eqnn_lie_attention(x, pairs, NULL, "m", &o));
    CHECK_ERROR(c, "0 sources");
    o.heads = 3;
    CHECK(!eqnn_lie_attention(x, pairs, g, "m", &o));
    CHECK_ERROR(c, "4 columns for 3 heads");
    o = attention_of("2132", NULL); /* combinations that were never run */
    CHECK(!eqnn_lie_attention(x, pairs, g, "m", &o));
    CHECK_ERROR(c, "unknown kernel");
    o = attention_of("mlp", "hardmax");
    CHECK(!eqnn_lie_attention(x, pairs, g, "m", &o));
    CHECK_ERROR(c, "unknown attention");
    o = attention_of("1222", NULL);
    o.feature_dim = 3;
    CHECK(!eqnn_lie_attention(x, pairs, g, "m", &o));
    CHECK_ERROR(c, "3 numbers of features (.feature_dim");
    eqnn_tensor *narrow = eqnn_zeros(c, 3, 8);
    static const char *const codes[] = { "2232", "2222" }; /* by default they fit narrow layers */
    for (int k = 0; k < 2; k++) {
        memset(&o, 0, sizeof o);
        o.kernel = codes[k];
        CHECK(eqnn_lie_attention(narrow, pairs, g, codes[k], &o) != NULL);
        CHECK_OK(c);
    }
    memset(&o, 0, sizeof o);
    o.kernel = "2222", o.heads = 2; /* 3 numbers of features would do, but two halves are 2 */
    CHECK(eqnn_lie_attention(eqnn_zeros(c, 3, 24), pairs, g, "even", &o) != NULL);
    CHECK(eqnn_rows(eqnn_parameter(c, "even.kernel.feature_featurisation.fc_q.weight")) == 2);
    o.heads = 65;
    CHECK(!eqnn_lie_attention(eqnn_zeros(c, 3, 130), pairs, g, "many", &o));
    CHECK_ERROR(c, "130 columns for 65 heads (1 to 64");
    const eqnn_finite_opts finite = { .cols = 130, .heads = 65 };
    CHECK(!eqnn_finite_transformer(x, pairs, g, "many", &finite));
    CHECK_ERROR(c, "130 columns for 65 heads (1 to 64");
    eqnn_lie_transformer_opts t = small_network();
    t.norm = "group";
    CHECK(!eqnn_lie_transformer(x, pairs, g, "t", &t));
    CHECK_ERROR(c, "unknown norm \"group\"; there are none, layer_pre, layer_post, batch_pre and "
                   "batch_post");
    t = small_network();
    t.head = "model_2";
    CHECK(!eqnn_lie_transformer(x, pairs, g, "t", &t));
    CHECK_ERROR(c, "unknown head \"model_2\"; there are model_1 and lieconv");
    CHECK(!eqnn_lie_transformer(x, pairs, NULL, "t", NULL));
    CHECK_ERROR(c, "sources");
    eqnn_set_opts set = small_set(0);
    CHECK(!eqnn_set_transformer(eqnn_zeros(c, 4, 4), g, "s", &set));
    CHECK_ERROR(c, "3 targets");
    set.heads = 3;
    CHECK(!eqnn_set_transformer(x, g, "s", &set));
    CHECK_ERROR(c, "8 columns for 3 heads");
    set = small_set(0);
    set.inducing = -1;
    CHECK(!eqnn_set_transformer(x, g, "s", &set));
    CHECK_ERROR(c, "-1 inducing rows");
}

/* A negative number of decoders, for which 0 is the default, is none. */
TEST(sets_without_decoders)
{
    eqnn_ctx *c = test_context();
    eqnn_set_opts o = small_set(0);
    for (int k = 0; k < 3; k++) {
        o.decoders = k == 0 ? -1 : k == 1 ? 0 : 1;
        const char *name = eqnn_format(c, "s%d", k);
        eqnn_tensor *y = eqnn_set_transformer(test_normal(c, 6, 4), complete(c, 6, 3), name, &o);
        CHECK(eqnn_rows(y) == 4 && eqnn_cols(y) == 3);
        int last = k == 0 ? 0 : k == 1 ? 4 : 1;
        CHECK(eqnn_parameter(c, eqnn_format(c, "%s.dec_layers.%d.module.weight", name, last)));
    }
    CHECK_OK(c);
}

/* What is negative is not the default. */
TEST(negative_options)
{
    static const char *const wrong = "is -1; it must be positive, or 0 for the default";
    eqnn_ctx *c = test_context();
    const eqnn_graph *g = complete(c, 3, 3);
    eqnn_tensor *x = eqnn_zeros(c, 3, 4), *pairs = eqnn_zeros(c, 9, 2);
    const eqnn_lie_attention_opts a[2] = { { .kernel_dim = -1 }, { .heads = -1 } };
    for (int i = 0; i < 2; i++) {
        CHECK(!eqnn_lie_attention(eqnn_zeros(c, 3, 8), pairs, g, "a", &a[i]));
        CHECK_ERROR(c, i ? "8 columns for -1 heads" : wrong);
    }
    const eqnn_lie_transformer_opts t[3] = { { .cols = -1 }, { .layers = -1 }, { .out = -1 } };
    for (int i = 0; i < 3; i++) {
        CHECK(!eqnn_lie_transformer(x, pairs, g, "t", &t[i]));
        CHECK_ERROR(c, wrong);
    }
    const eqnn_set_opts s[5] = { { .cols = -1 }, { .heads = -1 }, { .encoders = -1 },
                                 { .seeds = -1 }, { .out = -1 } };
    for (int i = 0; i < 5; i++) {
        CHECK(!eqnn_set_transformer(x, g, "s", &s[i]));
        CHECK_ERROR(c, wrong);
    }
    const eqnn_finite_opts f[5] = { { .cols = -1 }, { .heads = -1 }, { .layers = -1 },
                                    { .out = -1 }, { .slots = -1 } };
    for (int i = 0; i < 5; i++) {
        CHECK(!eqnn_finite_transformer(x, pairs, g, "f", &f[i]));
        CHECK_ERROR(c, wrong);
    }
}

/* An option that nothing reads is refused, with what it is for. */
TEST(options_without_use)
{
    static const struct { eqnn_lie_attention_opts o; const char *error; } a[] = {
        { { .kernel = "dot_product_only", .kernel_dim = 4 },
          ".kernel_dim is set, but of no use to kernel \"dot_product_only\": it is of M" },
        { { .kernel = "relative_position", .kernel_norm = 1 }, ".kernel_norm is set" },
        { { .kernel = "dot_product_only", .act = EQNN_RELU }, ".act is set" },
        { { .feature_dim = 4 },
          ".feature_dim is set, but of no use to kernel \"mlp\": it is of F" },
        { { .kernel = "1211", .feature_dim = 4 }, ".feature_dim is set" },
        { { .kernel = "relative_position", .run = 16 }, ".run is set" },
        { { .kernel = "1210", .run = 16 }, ".run is set" },
        { { .kernel = "2211", .attention = "softmax" }, "it is \"dot_product\" by its first" },
        { { .kernel = "1211", .attention = "dot_product" }, "it is \"softmax\" by its first" },
        { { .kernel = "dot_product_only", .run = -1 }, NULL }, /* all at once: they are */
        { { .kernel = "2211", .attention = "dot_product", .run = 16, .kernel_dim = 4,
            .act = EQNN_RELU, .kernel_norm = 1 }, NULL },
        { { .kernel = "location_only", .run = 16, .kernel_dim = 4 }, NULL },
    };
    eqnn_ctx *c = test_context();
    const eqnn_graph *g = complete(c, 3, 3);
    eqnn_tensor *x = test_normal(c, 3, 8), *pairs = test_normal(c, 9, 2);
    for (size_t i = 0; i < sizeof a / sizeof *a; i++) {
        eqnn_tensor *y = eqnn_lie_attention(x, pairs, g, eqnn_format(c, "a%d", (int)i), &a[i].o);
        CHECK((y == NULL) == (a[i].error != NULL));
        if (a[i].error) CHECK_ERROR(c, a[i].error);
        CHECK_OK(c);
    }
    static const struct { eqnn_lie_transformer_opts o; const char *error; } t[] = {
        { { .head = "lieconv", .head_norm = "layer" },
          ".head_norm is set, but of no use to head \"lieconv\": it is of \"model_1\"" },
        { { .squash = 1, .attention.kernel = "dot_product_only" }, ".squash is set" },
        { { .attention = { .kernel = "dot_product_only", .kernel_dim = 4 } }, ".kernel_dim is" },
        { { .attention.feature_dim = 4 }, ".feature_dim is set" },
        { { .attention = { .kernel = "dot_product_only", .kernel_norm = 1, .act = EQNN_RELU } },
          NULL }, /* in the blocks' M */
        { { .head = "lieconv", .head_norm = "none", .squash = 1 }, NULL },
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        eqnn_lie_transformer_opts o = t[i].o;
        o.cols = 8;
        eqnn_tensor *y = eqnn_lie_transformer(x, pairs, g, eqnn_format(c, "t%d", (int)i), &o);
        CHECK((y == NULL) == (t[i].error != NULL));
        if (t[i].error) CHECK_ERROR(c, t[i].error);
        CHECK_OK(c);
    }
}

/* What is of whole networks is refused by their parts. */
TEST(options_of_whole_networks)
{
    eqnn_ctx *c = test_context();
    const eqnn_graph *g = complete(c, 3, 3);
    eqnn_tensor *x = test_normal(c, 3, 8), *pairs = test_normal(c, 9, 2);
    static const struct { eqnn_lie_transformer_opts o; const char *error; } b[] = {
        { { .cols = 16 }, ".cols is set, but of no use beside the columns of x" },
        { { .layers = 2 }, ".layers is set, but of no use in a single block: it is of "
                           "eqnn_lie_transformer" },
        { { .out = 2 }, ".out is set" }, { { .head = "model_1" }, ".head is set" },
        { { .head_norm = "layer" }, ".head_norm is set" }, { { .max_pool = 1 }, ".max_pool is" },
        { { .squash = 1 }, ".squash is set" }, { { .cols = 8 }, NULL },
    };
    for (size_t i = 0; i < sizeof b / sizeof *b; i++) {
        CHECK(!eqnn_lie_attention_block(x, pairs, g, "b", &b[i].o) == (b[i].error != NULL));
        if (b[i].error) CHECK_ERROR(c, b[i].error);
        CHECK_OK(c);
    }
    static const struct { eqnn_set_opts o; const char *error; } s[] = {
        { { .encoders = 2 }, "set_attention: .encoders is set, but of no use in a single attention"
                             ": it is of eqnn_set_transformer" },
        { { .inducing = 2 }, ".inducing is set" }, { { .decoders = -1 }, ".decoders is set" },
        { { .seeds = 2 }, ".seeds is set" }, { { .out = 2 }, ".out is set" },
    };
    for (size_t i = 0; i < sizeof s / sizeof *s; i++) {
        CHECK(!eqnn_set_attention(x, x, g, "s", &s[i].o));
        CHECK_ERROR(c, s[i].error);
    }
    eqnn_particles p = particles_of(c, 4, 4);
    eqnn_lie_transformer_opts o = small_network();
    const eqnn_lie *G = eqnn_lie_make(c, "T(2)");
    CHECK(!eqnn_lie_transformer_energy(test_normal(c, 4, 4), &p, G, 1, "e", &o));
    CHECK_ERROR(c, "lie_transformer_energy: .out is set, but of no use");
    o.out = 1;
    CHECK(eqnn_lie_transformer_energy(test_normal(c, 4, 4), &p, G, 1, "e", &o) != NULL);
    CHECK_OK(c);
}

TEST_MAIN
