/* equiformer.c - the seed's network: sizes, symmetry, masks and batches, odd inputs, derivatives */
#include "test.h"

static const eqnn_equiformer_opts small = { .dim = "5,3,2", .dim_head = "3,2,2", .heads = "2,2,1",
                                            .depth = 2, .radial = 7, .start_random = 1,
                                            .embedding_grad = 1 };

/* Feed-forward networks end in zeros at first, attention too: tests want all parts at work. */
static void stir(eqnn_ctx *c)
{
    for (int i = 0; i < eqnn_parameter_count(c); i++) {
        eqnn_tensor *w = eqnn_parameter_at(c, i);
        const char *name = eqnn_parameter_name(c, i);
        int n = eqnn_rows(w) * eqnn_cols(w);
        double *v = (double *)malloc(((size_t)n + 1) * sizeof *v);
        if (strstr(name, "project_out") || strstr(name, ".to_out.weights")) {
            eqnn_random(c, name, 1, (size_t)n, v);
            for (int k = 0; k < n; k++) v[k] *= 0.5;
            eqnn_set(w, v);
        }
        free(v);
    }
}

typedef struct setup {
    eqnn_equiformer_opts o;
    eqnn_neighbour_opts near;
    int scalar_only; /* features of degree 0 only, else also of degree 1 */
} setup;

/* x[0] positions, x[1] features */
static eqnn_tensor *network(eqnn_tensor *const *x, int n, void *user)
{
    const setup *s = (const setup *)user;
    (void)n;
    const eqnn_graph *g = eqnn_neighbour_graph(x[0], &s->near);
    return eqnn_equiformer(x[1], NULL, x[0], g, "m", &s->o);
}

static void inputs(eqnn_ctx *c, int nodes, eqnn_tensor *x[2])
{
    x[0] = eqnn_as(eqnn_scale(test_normal(c, nodes, 3), 2), eqnn_irreps_make(c, "1x1o"));
    x[1] = test_features(c, nodes, "4x0e+2x1o");
}

/* |f(R x) - R f(x)| of rotations only, relative. */
static double rotation_error(setup *s, eqnn_tensor *x[2], int improper)
{
    eqnn_ctx *c = eqnn_context(x[0]);
    eqnn_tensor *y = network(x, 2, s);
    stir(c);
    y = network(x, 2, s);
    double worst = 0;
    for (int k = 0; k < 3 && y; k++) {
        double R[9];
        eqnn_rotation_random(c, eqnn_format(c, "turn%d", k), improper, R);
        eqnn_tensor *z[2] = { eqnn_rotate(x[0], R), eqnn_rotate(x[1], R) };
        worst = fmax(worst, test_difference(network(z, 2, s), eqnn_rotate(y, R)));
    }
    return y ? worst : INFINITY;
}

TEST(rotations)
{
    for (int k = 0; k < 12; k++) {
        eqnn_ctx *c = test_context();
        setup s = { .o = small };
        eqnn_tensor *x[2];
        s.o.mlp = k % 2;
        s.o.all_degrees = 1;
        s.o.single_kv = k / 2 == 1;
        s.o.linear_heads = k / 2 == 2 ? 2 : 0;
        s.o.linear_dim = 3;
        s.o.no_self = k / 2 == 3;
        s.o.full = k / 2 == 4;
        s.o.type_norms = s.o.reversible = k / 2 == 5;
        s.o.no_gate = k / 2 == 1;
        s.o.envelope = k / 2 == 3 ? 4 : 0;
        s.near.neighbours = k / 2 == 2 ? 4 : 0;
        inputs(c, 9, x);
        double error = rotation_error(&s, x, 0);
        test_note("options %d: %.1e", k, error);
        CHECK(error <= test_eps(1e-13, k / 2 == 3 ? 1e-5 : 2e-6));
        eqnn_tensor *y = network(x, 2, &s);
        static const double by[3] = { 3, -1, 2 };
        eqnn_tensor *step = eqnn_as(eqnn_from_double(c, 1, 3, by), eqnn_label_of(x[0]));
        eqnn_tensor *there = eqnn_add(x[0], step);
        eqnn_tensor *z[2] = { there, x[1] };
        CHECK(test_difference(network(z, 2, &s), y) <= test_eps(1e-12, 1e-5));
        eqnn_reset(c);
    }
}

/* Methane: what its symmetry makes vanish is rounding errors, which norms must not blow up. */
TEST(symmetric_molecules)
{
    static const double at[15] = { 0, 0, 0, 1, 1, 1, 1, -1, -1, -1, 1, -1, -1, -1, 1 };
    static const double kind[10] = { 0.3, -1, 0.8, 0.5, 0.8, 0.5, 0.8, 0.5, 0.8, 0.5 };
    double error[2];
    for (int k = 0; k < 2; k++) {
        eqnn_ctx *c = test_context();
        setup s = { .o = small };
        double R[9];
        s.o.norm_floor = k;
        eqnn_rotation_random(c, "first", 0, R); /* so that numbers are not exact */
        eqnn_tensor *x[2] = { eqnn_as(eqnn_from_double(c, 5, 3, at), eqnn_irreps_make(c, "1x1o")),
                              eqnn_from_double(c, 5, 2, kind) };
        x[0] = eqnn_rotate(x[0], R);
        error[k] = rotation_error(&s, x, 0);
    }
    test_note("CH4 turned: %.1e, with a floor of the norms %.1e", error[0], error[1]);
    CHECK(error[1] <= test_eps(1e-12, 2e-5) && error[0] > 100 * error[1]);
}

/* What a node without neighbours has of degree 1 is 0; gradients must not grow by 1e6 at each norm
   on the way back through it. */
TEST(alone)
{
    static const double pos[12] = { 0, 0, 0, 1, 0.2, 0, 0.3, 0.9, 0.4, 20, 20, 20 };
    static const int kind[4] = { 0, 1, 1, 0 };
    eqnn_ctx *c = test_context();
    eqnn_equiformer_opts o = { .dim = "8,4", .dim_head = "4", .heads = "2", .depth = 4, .tokens = 2,
                               .reduce = 1, .radial = 8, .start_random = 1 };
    eqnn_tensor *x = eqnn_from_double(c, 4, 3, pos), *y = NULL;
    const eqnn_graph *g = eqnn_neighbour_graph(x, &(eqnn_neighbour_opts){ .radius = 3 });
    double w[4096], sum = 0;
    int bad = 0;
    for (int pass = 0; pass < 2; pass++) {
        y = eqnn_equiformer(NULL, eqnn_ints_make(c, 4, kind, 2, 0), x, g, "m", &o);
        for (int i = 0; i < eqnn_parameter_count(c) && !pass; i++) { /* as trained: none is 0 */
            eqnn_tensor *p = eqnn_parameter_at(c, i);
            int n = eqnn_rows(p) * eqnn_cols(p);
            if (n > 4096 || eqnn_at(p, 0, 0) != 0) continue;
            for (int k = 0; k < n; k++) w[k] = 0.3 * sin(1 + i * 7 + k * 13);
            eqnn_set(p, w);
        }
    }
    y = eqnn_as(eqnn_extract_irrep(y, 1, -1), NULL);
    CHECK(eqnn_backward(eqnn_mean(eqnn_square(eqnn_shift(y, -0.3)))));
    for (int i = 0; i < eqnn_parameter_count(c); i++) {
        eqnn_tensor *d = eqnn_gradient(eqnn_parameter_at(c, i));
        for (int k = 0; k < eqnn_rows(d) * eqnn_cols(d); k++) {
            bad += !(fabs((double)eqnn_data(d)[k]) < 1e4);
            sum += fabs((double)eqnn_data(d)[k]);
        }
    }
    CHECK(bad == 0 && sum > 0);
    CHECK_OK(c);
}

TEST(reflections)
{
    eqnn_ctx *c = test_context();
    setup s = { .o = small };
    eqnn_tensor *x[2];
    s.o.all_degrees = 1;
    inputs(c, 8, x);
    CHECK(rotation_error(&s, x, 1) > 1e-3); /* knows left from right */
    s.o.parity = 1;
    CHECK(rotation_error(&s, x, 1) <= test_eps(1e-12, 3e-6));
}

/* Full products have the reduced ones within them: every R_J the same. With parity kept those of
   odd li + lo + J are left out of both: from degree 1 to 1 two matrices of three. */
TEST(full_product)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *x[2], *y[2];
    inputs(c, 6, x);
    const eqnn_graph *g = eqnn_neighbour_graph(x[0], NULL);
    for (int parity = 0; parity < 2; parity++) {
        const char *names[2] = { parity ? "a1" : "a0", parity ? "b1" : "b0" };
        for (int k = 0; k < 4; k++) {
            eqnn_equiformer_opts o = small;
            o.parity = parity;
            o.full = k % 2;
            y[k % 2] = eqnn_equiformer_product(x[1], x[0], g, names[k % 2], "3,2,2", &o, NULL);
            for (int i = 0; k == 1 && i < eqnn_parameter_count(c); i++) {
                const char *name = eqnn_parameter_name(c, i), *rest = name + 2;
                if (strncmp(name, names[0], 2)) continue;
                eqnn_tensor *w = eqnn_parameter_at(c, i);
                eqnn_tensor *to = eqnn_parameter(c, eqnn_format(c, "%s%s", names[1], rest));
                int n = eqnn_rows(w) * eqnn_cols(w), m = eqnn_rows(to) * eqnn_cols(to);
                CHECK(n > 0 && m == n * (strstr(rest, "(1,1).rp.6") ? 3 - parity
                                         : strstr(rest, "(1,2).rp.6") ? 3 - parity : 1));
                double *v = (double *)malloc((size_t)m * sizeof *v);
                for (int p = 0; p < m; p++) v[p] = (double)eqnn_data(w)[p % n];
                eqnn_set(to, v);
                free(v);
            }
        }
        CHECK(test_difference(y[0], y[1]) <= test_eps(1e-13, 1e-5));
    }
}

/* Weights of a linear map of one degree: s on the diagonal, else 0. */
static void set_diagonal(eqnn_ctx *c, const char *map, int l, double s)
{
    eqnn_tensor *w = eqnn_parameter(c, eqnn_format(c, "%s.weights.%d", map, l));
    int n = eqnn_rows(w), m = eqnn_cols(w);
    double *v = (double *)calloc((size_t)n * (size_t)m + 1, sizeof *v);
    CHECK(n > 0 && m > 0);
    for (int i = 0; i < n && i < m; i++) v[i * m + i] = s;
    eqnn_set(w, v);
    free(v);
}

/* Products without some of their linear maps are those whose maps do nothing. */
TEST(products_without_maps)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *x[2], *self, *none;
    eqnn_equiformer_opts o = small, less = small;
    inputs(c, 6, x);
    less.no_project = less.no_out = less.no_self = 1;
    const eqnn_graph *g = eqnn_neighbour_graph(x[0], NULL);
    const char *out = "5,4"; /* of two degrees of input each: 3 + 2 and 2 + 2 */
    eqnn_equiformer_product(x[1], x[0], g, "a", out, &o, NULL);
    for (int l = 0; l < 2; l++) {
        set_diagonal(c, "a.to_xi", l, 0);
        set_diagonal(c, "a.to_xj", l, 1);
        set_diagonal(c, "a.to_out", l, 1);
        set_diagonal(c, "a.self_interact", l, 0);
    }
    eqnn_tensor *y = eqnn_equiformer_product(x[1], x[0], g, "a", out, &o, NULL);
    eqnn_tensor *z = eqnn_equiformer_product(x[1], x[0], g, "a", out, &less, NULL);
    CHECK(test_difference(y, z) <= test_eps(1e-14, 1e-6));
    y = eqnn_equiformer_product(x[1], x[0], g, "a", out, &o, &self);
    z = eqnn_equiformer_product(x[1], x[0], g, "a", out, &less, &none);
    CHECK(test_difference(y, z) <= test_eps(1e-14, 1e-6) && self && !none);
    CHECK(eqnn_label_of(y) == eqnn_label_of(z));
}

TEST(width_of_feed_forward)
{
    eqnn_ctx *c = test_context();
    eqnn_equiformer_opts o = small;
    o.feed_mult = 3;
    eqnn_equiformer_feedforward(test_features(c, 4, "4x0e+2x1o"), "f", NULL, &o);
    CHECK(eqnn_cols(eqnn_parameter(c, "f.project_in.weights.1")) == 6);
    CHECK(eqnn_cols(eqnn_parameter(c, "f.project_in.weights.0")) == 12 + 6);
}

static eqnn_tensor *wide(eqnn_tensor *const *x, int n, void *user)
{
    (void)n;
    const eqnn_graph *g = eqnn_neighbour_graph(x[0], NULL);
    return eqnn_equiformer_product(x[1], x[0], g, "m", "37,9", (eqnn_equiformer_opts *)user, NULL);
}

/* More matrices than lie in a cache at once, more pairs than are taken at once. */
TEST(wide_product)
{
    eqnn_ctx *c = test_context();
    eqnn_equiformer_opts o = { .radial = 5 };
    eqnn_tensor *x[2] = { test_normal(c, 15, 3), test_features(c, 15, "41x0e+3x1o") };
    CHECK_DERIVATIVES_OF(wide, x, 2, &o, sizeof(eqnn_real) == 8 ? 2 : 1);
    eqnn_tensor *y = wide(x, 2, &o);
    eqnn_equiformer_opts edges = o; /* the same with a row of radial features for every edge */
    const eqnn_graph *g = eqnn_neighbour_graph(x[0], NULL);
    edges.edges = eqnn_zeros(c, g->edges, 1);
    for (int k = 0; k < 2; k++) {
        eqnn_tensor *z = eqnn_equiformer_product(x[1], x[0], g, "n", "37,9", &edges, NULL);
        if (k) CHECK(test_difference(z, y) <= test_eps(1e-13, 1e-5));
        for (int i = 0; i < eqnn_parameter_count(c) && !k; i++) {
            const char *name = eqnn_parameter_name(c, i);
            if (strncmp(name, "m.", 2)) continue;
            eqnn_tensor *w = eqnn_parameter_at(c, i);
            eqnn_tensor *to = eqnn_parameter(c, eqnn_format(c, "n.%s", name + 2));
            int n = eqnn_rows(w) * eqnn_cols(w), more = eqnn_cols(to) > eqnn_cols(w);
            double *v = (double *)calloc(2 * (size_t)n + 1, sizeof *v);
            for (int p = 0; p < n; p++) v[more ? 2 * p + 1 : p] = (double)eqnn_data(w)[p];
            eqnn_set(to, v); /* the new number comes first, and is 0 anyway */
            free(v);
        }
    }
}

TEST(derivatives)
{
    for (int k = 0; k < 5; k++) {
        eqnn_ctx *c = test_context();
        setup s = { .o = small };
        eqnn_tensor *x[2];
        s.o.dim = "3,2", s.o.dim_head = "2", s.o.heads = "2", s.o.depth = 1, s.o.radial = 4;
        s.o.mlp = k % 2;
        s.o.linear_heads = k == 2, s.o.linear_dim = 2;
        s.o.envelope = k == 3 ? 5 : 0;
        s.o.reversible = k == 4;
        s.o.recompute = k == 1;
        inputs(c, 4, x);
        network(x, 2, &s);
        stir(c);
        CHECK_DERIVATIVES_OF(network, x, 2, &s, k < 2 && sizeof(eqnn_real) == 8 ? 2 : 1);
    }
}

/* The order of nodes does not matter, nor who else is in the batch. */
TEST(permutation_and_batch)
{
    for (int k = 0; k < 4; k++) {
        eqnn_ctx *c = test_context();
        setup s = { .o = small };
        eqnn_tensor *x[2];
        enum { N = 8 };
        int order[N], example[N];
        s.o.mlp = k % 2;
        s.o.linear_heads = 1, s.o.linear_dim = 2;
        s.near.neighbours = k < 2 ? 0 : 3;
        inputs(c, N, x);
        network(x, 2, &s);
        stir(c);
        eqnn_tensor *y = network(x, 2, &s);
        for (int i = 0; i < N; i++) order[i] = (3 * i + 1) % N;
        eqnn_ints *p = eqnn_ints_make(c, N, order, N, 0);
        eqnn_tensor *z[2] = { eqnn_take(x[0], p), eqnn_take(x[1], p) };
        CHECK(test_difference(network(z, 2, &s), eqnn_take(y, p)) <= test_eps(1e-13, 1e-5));
        for (int i = 0; i < N; i++) example[i] = i < 5 ? 0 : i < 6 ? 1 : 3; /* 2: no nodes */
        s.near.example = example;
        s.near.examples = 4;
        y = network(x, 2, &s);
        s.near.example = NULL;
        s.near.examples = 0;
        int first[3] = { 0, 5, 6 }, count[3] = { 5, 1, 2 };
        for (int b = 0; b < 3; b++) {
            eqnn_tensor *one[2] = { eqnn_slice_rows(x[0], first[b], count[b]),
                                    eqnn_slice_rows(x[1], first[b], count[b]) };
            eqnn_tensor *alone = network(one, 2, &s);
            CHECK(test_difference(eqnn_slice_rows(y, first[b], count[b]), alone) <=
                  test_eps(1e-13, 1e-5));
        }
        s.near.example = example;
        s.near.examples = 4;
        s.o.pool = 1;
        CHECK(eqnn_rows(network(x, 2, &s)) == 4);
    }
}

/* At first blocks add nothing: the network is its first product, each degree over its size; of
   degrees 0 and 1, or all. A gain that is 1e6 for what vanishes, or 1e12 in the original. */
TEST(begins_as_a_norm)
{
    static const int channels[3] = { 4, 3, 2 };
    for (int k = 0; k < 6; k++) {
        eqnn_ctx *c = test_context();
        eqnn_equiformer_opts o = { .dim = "4,3,2", .dim_head = "2", .heads = "1", .radial = 6,
                                   .norm_floor = k % 2 ? 0.5 : 0, .original = k / 2 == 2 };
        double tiny = o.original && sizeof(eqnn_real) == 8 ? 1e-24 : 1e-12;
        eqnn_tensor *x[2], *part[3], *all = NULL;
        inputs(c, 5, x);
        if (k >= 2) x[1] = eqnn_scale(x[1], 1e-6);
        const eqnn_graph *g = eqnn_neighbour_graph(x[0], NULL);
        eqnn_tensor *y = eqnn_equiformer(x[1], NULL, x[0], g, "m", &o);
        o.all_degrees = 1;
        eqnn_tensor *z = eqnn_equiformer(x[1], NULL, x[0], g, "m", &o);
        CHECK_TEXT(eqnn_label_of(y)->name, "4x0e+3x1o");
        CHECK_TEXT(eqnn_label_of(z)->name, "4x0e+3x1o+2x2e");
        CHECK_SAME(eqnn_as(y, NULL), eqnn_slice(eqnn_as(z, NULL), 0, 13), 0);
        eqnn_tensor *h = eqnn_equiformer_product(x[1], x[0], g, "m.tp_in", o.dim, &o, NULL);
        h = eqnn_as(h, NULL);
        for (int l = 0, at = 0; l < 3; at += (2 * l + 1) * channels[l], l++)
            part[l] = eqnn_slice(h, at, (2 * l + 1) * channels[l]);
        all = eqnn_scale(eqnn_sum_cols(eqnn_square(h)), o.norm_floor * o.norm_floor / 9);
        for (int l = 0; l < 3; l++) {
            eqnn_tensor *s = eqnn_scale(eqnn_sum_cols(eqnn_square(part[l])), 1. / channels[l]);
            part[l] = eqnn_mul(part[l], eqnn_rsqrt(eqnn_shift(eqnn_add(s, all), tiny)));
        }
        CHECK_SAME(eqnn_as(z, NULL), eqnn_concat_n(part, 3), test_eps(1e-12, 1e-5));
    }
}

/* The width of what decides, sizes of tables, how weights begin, by names. */
TEST(sizes_by_name)
{
    eqnn_ctx *c = test_context();
    int token[4] = { 0, 1, 1, 0 }, bonds[12] = { 0, 1 };
    eqnn_tensor *pos = test_normal(c, 4, 3), *w;
    const eqnn_graph *g = eqnn_complete_graph(c, 4, NULL);
    for (int k = 0; k < 2; k++) {
        eqnn_equiformer_opts o = { .dim = "4", .dim_head = "2", .heads = "2", .radial = 5 };
        const char *name = k ? "b" : "a";
        o.mlp = o.tokens = 400;
        o.all_degrees = o.bond_dim = 1;
        o.hidden_mult = k ? 3 : 0;
        o.bond_degrees = k ? 4 : 0;
        o.basis = o.start_random = k;
        o.bonded = eqnn_ints_make(c, 12, bonds, 2, 0);
        eqnn_tensor *y = eqnn_equiformer(NULL, eqnn_ints_make(c, 4, token, 2, 0), pos, g, name, &o);
        CHECK_TEXT(eqnn_label_of(y)->name, "4x0e+4x1o"); /* two degrees, where none are said */
        const char *block = eqnn_format(c, "%s.layers.blocks.0.0", name);
        w = eqnn_parameter(c, eqnn_format(c, "%s.to_attn_logits.0.1.weight", block));
        CHECK(eqnn_rows(w) == 2 && eqnn_cols(w) == 2 * (k ? 3 : 4));
        w = eqnn_parameter(c, eqnn_format(c, "%s.to_out.weights.0", block));
        CHECK((eqnn_value(eqnn_sum(eqnn_square(w))) > 0) == (k == 1));
        CHECK(eqnn_rows(eqnn_parameter(c, eqnn_format(c, "%s.adj_emb.weight", name))) ==
              (k ? 5 : 2));
        CHECK((eqnn_parameter(c, eqnn_format(c, "%s.basis:(1,1)", name)) != NULL) == (k == 1));
        w = eqnn_parameter(c, eqnn_format(c, "%s.token_emb.weight", name));
        CHECK_NEAR(100 * sqrt(eqnn_value(eqnn_mean(eqnn_square(w)))), 1, 0.1);
    }
}

/* Gradients into scalars are damped, by half unless said; numbers are not. */
TEST(damped_gradients)
{
    eqnn_ctx *c = test_context();
    setup s = { .o = small };
    eqnn_tensor *x[2], *y[3], *dx[3];
    inputs(c, 5, x);
    x[1] = test_features(c, 5, "4x0e");
    for (int k = 0; k < 3; k++) {
        s.o.embedding_grad = k == 1 ? 0 : k == 2 ? 0.2 : 1;
        y[k] = network(x, 2, &s);
        dx[k] = eqnn_grad(eqnn_sum(eqnn_sin(eqnn_as(y[k], NULL))), x[1]);
    }
    for (int k = 1; k < 3; k++) {
        CHECK_SAME(y[k], y[0], test_eps(1e-14, 1e-5));
        CHECK_SAME(dx[k], eqnn_scale(dx[0], k == 1 ? 0.5 : 0.2), test_eps(1e-13, 1e-5));
    }
    CHECK(eqnn_value(eqnn_sum(eqnn_square(eqnn_as(dx[0], NULL)))) > 1e-8);
}

/* The mean over edges of weight w: sum of w y over max(1, sum of w); where edges fade out by a
   factor u more, which those of bonds do not, over sqrt(1 + (sum of w u)^2). */
TEST(weighted_means)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *x[2], *self;
    enum { E = 20 };
    double weight[E], bond[E];
    int bonds[E];
    inputs(c, 5, x);
    const eqnn_graph *g = eqnn_complete_graph(c, 5, NULL);
    for (int e = 0; e < E; e++) weight[e] = 0.1 + 0.07 * e, bonds[e] = e % 4, bond[e] = e % 4 > 0;
    eqnn_tensor *length = eqnn_norm(eqnn_edge_vectors(x[0], g)), *one = eqnn_full(c, 1, 1, 1);
    eqnn_tensor *w = eqnn_from_double(c, E, 1, weight), *near = eqnn_from_double(c, E, 1, bond);
    eqnn_tensor *u = eqnn_map(eqnn_scale(length, 1. / 5), EQNN_POLY_CUTOFF, 3, 0);
    for (int k = 1; k < 8; k++) { /* weights, an envelope, bonds */
        eqnn_equiformer_opts o = small;
        eqnn_tensor *all = eqnn_full(c, E, 1, 1);
        o.no_self = 1;
        o.edge_weight = k & 1 ? w : NULL;
        o.envelope = k & 2 ? 5 : 0;
        o.bonded = k & 4 ? eqnn_ints_make(c, E, bonds, 4, 0) : NULL;
        if (k & 1) all = w;
        if (k & 2) all = eqnn_mul(all, k & 4 ? eqnn_where(near, one, u) : u);
        eqnn_tensor *y = eqnn_equiformer_product(x[1], x[0], g, "m", "3,2", &o, NULL);
        eqnn_tensor *rows = eqnn_equiformer_product(x[1], x[0], g, "m", "3,2", &o, &self);
        eqnn_tensor *sum = eqnn_scatter(all, g);
        sum = k & 2 ? eqnn_sqrt(eqnn_shift(eqnn_square(sum), 1)) : eqnn_max(sum, one);
        rows = eqnn_scatter(eqnn_mul(rows, all), g);
        CHECK_SAME(y, eqnn_mul(rows, eqnn_reciprocal(sum)), test_eps(1e-13, 1e-5));
    }
}

/* In the original edges of weight 0 still count for degree 0 of distance attention, not for other
   degrees, nor where a network decides. */
TEST(edge_weights_of_the_original)
{
    for (int mlp = 0; mlp < 2; mlp++) {
        eqnn_ctx *c = test_context();
        eqnn_equiformer_opts o = small;
        eqnn_tensor *x[2], *y[3];
        double w[20];
        int source[20], target[20], n = 0;
        o.dim_head = "2", o.heads = "2,1", o.mlp = mlp, o.original = 1;
        inputs(c, 5, x);
        const eqnn_graph *all = eqnn_complete_graph(c, 5, NULL);
        for (int e = 0; e < 20; e++) {
            w[e] = e % 3 > 0;
            if (w[e] > 0) source[n] = all->source[e], target[n++] = all->target[e];
        }
        const eqnn_graph *few = eqnn_graph_make(c, n, source, target,
                                                &(eqnn_graph_opts){ .targets = 5 });
        for (int k = 0; k < 3; k++) { /* all edges; weights; those of weight 1 alone */
            o.edge_weight = k == 1 ? eqnn_from_double(c, 20, 1, w) : NULL;
            y[k] = eqnn_equiformer_attention(x[1], x[0], k == 2 ? few : all, "m", &o);
            y[k] = eqnn_as(y[k], NULL);
        }
        double eps = test_eps(1e-13, 1e-5);
        CHECK_SAME(eqnn_slice(y[1], 0, 4), eqnn_slice(y[mlp ? 2 : 0], 0, 4), eps);
        CHECK_SAME(eqnn_slice(y[1], 4, 6), eqnn_slice(y[2], 4, 6), eps);
        CHECK(test_difference(y[0], y[2]) > 1e-3);
    }
}

/* The numbers of a parameter times s from column first on, count columns of each row. */
static void scale_columns(eqnn_ctx *c, const char *name, int first, int count, double s)
{
    eqnn_tensor *w = eqnn_parameter(c, name);
    int cols = eqnn_cols(w), n = eqnn_rows(w) * cols;
    double *v = (double *)malloc(((size_t)n + 1) * sizeof *v);
    CHECK(n > 0);
    for (int i = 0; i < n; i++) {
        int inside = i % cols >= first && i % cols < first + count;
        v[i] = (double)eqnn_data(w)[i] * (inside ? s : 1);
    }
    eqnn_set(w, v);
    free(v);
}

/* A leaky relu of slope 1 does nothing: logits are linear, and minus signs before and after it
   cancel. With another slope they do not. */
TEST(slope_of_logits)
{
    eqnn_ctx *c = test_context();
    eqnn_equiformer_opts o = small;
    eqnn_tensor *x[2], *y[4];
    o.dim_head = "2", o.heads = "2,1", o.mlp = 1, o.hidden_mult = 3;
    inputs(c, 5, x);
    const eqnn_graph *g = eqnn_complete_graph(c, 5, NULL);
    for (int k = 0; k < 4; k++) {
        o.slope = k % 2 ? 0.1 : 1;
        if (k == 2) { /* 3 heads see 3 numbers each */
            scale_columns(c, "m.to_attn_and_v.to_out.weights.0", 0, 9, -1);
            scale_columns(c, "m.to_attn_and_v.self_interact.weights.0", 0, 9, -1);
            scale_columns(c, "m.to_attn_logits.0.1.weight", 0, 6, -1);
            scale_columns(c, "m.to_attn_logits.1.1.weight", 0, 3, -1);
        }
        y[k] = eqnn_equiformer_attention(x[1], x[0], g, "m", &o);
    }
    CHECK_SAME(y[2], y[0], test_eps(1e-14, 1e-6));
    CHECK(test_difference(y[3], y[1]) > 1e-4);
    o.slope = 0; /* 0.1 */
    CHECK_SAME(eqnn_equiformer_attention(x[1], x[0], g, "m", &o), y[3], 0);
}

/* The trunk by its layers: one stream, or two of which each sees the other; the mean of nodes. */
TEST(trunk_by_hand)
{
    for (int k = 0; k < 4; k++) {
        eqnn_ctx *c = test_context();
        setup s = { .o = small };
        eqnn_tensor *x[2];
        s.o.reversible = k % 2;
        s.o.type_norms = k / 2;
        s.o.reduce = s.o.nonlinear_out = k == 2;
        inputs(c, 5, x);
        network(x, 2, &s);
        stir(c);
        eqnn_tensor *y = network(x, 2, &s);
        s.o.pool = 1;
        eqnn_tensor *mean = network(x, 2, &s);
        const eqnn_graph *g = eqnn_neighbour_graph(x[0], &s.near);
        s.o.all_degrees = 1;
        eqnn_tensor *a = eqnn_equiformer_product(x[1], x[0], g, "m.tp_in", s.o.dim, &s.o, NULL);
        eqnn_tensor *b = a;
        for (int i = 0; i < s.o.depth; i++) {
            const char *f = eqnn_format(c, "m.layers.blocks.%d.%s", i, k % 2 ? "f.net" : "0");
            const char *n = eqnn_format(c, "m.layers.blocks.%d.%s", i, k % 2 ? "g.net" : "1");
            a = eqnn_add(a, eqnn_equiformer_attention(k % 2 ? b : a, x[0], g, f, &s.o));
            eqnn_tensor *d = eqnn_equiformer_feedforward(a, n, NULL, &s.o);
            b = eqnn_add(k % 2 ? b : a, d);
            if (k % 2 == 0) a = b;
        }
        a = eqnn_scale(eqnn_add(a, b), 0.5);
        eqnn_tensor *size = eqnn_sum_cols(eqnn_square(eqnn_slice(eqnn_as(a, NULL), 0, 5)));
        size = eqnn_rsqrt(eqnn_shift(eqnn_scale(size, 0.2), 1e-12));
        a = eqnn_mul(eqnn_slice(eqnn_as(a, NULL), 0, 5), size);
        CHECK_SAME(mean, eqnn_mean_rows(eqnn_as(y, NULL)), test_eps(1e-14, 1e-6));
        if (s.o.reduce) CHECK(eqnn_parameter(c, "m.ff_out.project_in.weights.0") != NULL);
        else CHECK_SAME(eqnn_slice(eqnn_as(y, NULL), 0, 5), a, test_eps(1e-12, 1e-5));
    }
}

/* Blocks that are computed again are the same, with less on the tape. */
TEST(computes_blocks_again)
{
    eqnn_ctx *c = test_context();
    setup s = { .o = small };
    eqnn_tensor *x[2], *y[2];
    size_t nodes[2];
    s.o.envelope = 5;
    inputs(c, 5, x);
    network(x, 2, &s);
    stir(c);
    for (int k = 0; k < 2; k++) {
        size_t before = eqnn_memory_use(c).tape_nodes;
        s.o.recompute = k;
        y[k] = network(x, 2, &s);
        nodes[k] = eqnn_memory_use(c).tape_nodes - before;
    }
    CHECK_SAME(y[1], y[0], 0);
    CHECK(nodes[1] < nodes[0] / 2);
}

/* Edges of weight 0 are as good as none. */
TEST(edge_weights)
{
    for (int mlp = 0; mlp < 2; mlp++) {
        eqnn_ctx *c = test_context();
        eqnn_equiformer_opts o = small;
        eqnn_tensor *x[2];
        double w[30];
        int source[30], target[30], n = 0;
        o.mlp = mlp;
        inputs(c, 6, x);
        const eqnn_graph *all = eqnn_complete_graph(c, 6, NULL);
        for (int e = 0; e < 30; e++) {
            w[e] = all->target[e] != 2 && (all->source[e] + 2 * all->target[e]) % 3 > 0;
            if (w[e] == 0) continue;
            source[n] = all->source[e];
            target[n++] = all->target[e];
        }
        eqnn_graph_opts nodes = { .sources = 6, .targets = 6 };
        const eqnn_graph *few = eqnn_graph_make(c, n, source, target, &nodes);
        eqnn_equiformer(x[1], NULL, x[0], few, "m", &o);
        stir(c);
        eqnn_tensor *a = eqnn_equiformer(x[1], NULL, x[0], few, "m", &o);
        o.edge_weight = eqnn_from_double(c, 30, 1, w);
        eqnn_tensor *b = eqnn_equiformer(x[1], NULL, x[0], all, "m", &o);
        CHECK(test_difference(a, b) <= test_eps(1e-13, 1e-5));
    }
}

/* A node that comes within reach of the envelope changes nothing at once. */
TEST(envelope)
{
    eqnn_ctx *c = test_context();
    setup s = { .o = small };
    eqnn_tensor *x[2], *y[4];
    double p[12] = { 0, 0, 0, 1, 0.5, 0, 0, 0, 3, 0, 1, 4.5 };
    s.o.envelope = s.near.radius = 3;
    x[1] = test_features(c, 4, "4x0e");
    for (int k = 0; k < 4; k++) {
        if (k == 2) s.o.envelope = 0;
        p[8] = k % 2 ? 3 - 1e-4 : 3 + 1e-4;
        x[0] = eqnn_from_double(c, 4, 3, p);
        if (!k) {
            network(x, 2, &s);
            stir(c);
        }
        y[k] = network(x, 2, &s);
    }
    CHECK(test_difference(y[0], y[1]) <= 2e-3); /* the positions differ by 2e-4 */
    CHECK(test_difference(y[2], y[3]) > 2e-2);  /* a jump without it            */
}

/* Coincident nodes, nodes alone, one node, none, edges along the axes: numbers, and their
   gradients. */
TEST(odd_places)
{
    static const double at[6][12] = {
        { 0, 0, 0, 0, 0, 0, 1, 2, 0, 1, 2, 0 },          /* coincident                   */
        { 0, 0, 0, 50, 0, 0, 0, 60, 0, 0, 0, 70 },       /* alone                        */
        { 0, 0, 0, 0, 1, 0, 0, -1, 0, 0, 2, 0 },         /* along y, both ways           */
        { 0, 0, 0, 1, 0, 0, -1, 0, 0, 2, 0, 0 },         /* along x                      */
        { 0, 0, 0, 0, 0, 1, 0, 0, -1, 0, 0, 2 },         /* along z                      */
        { 0, 0, 0, 1e-9, -1, 1e-9, 0, 1, 1e-7, 0, 0, 1 } /* near y                       */
    };
    for (int k = 0; k < 14; k++) {
        eqnn_ctx *c = test_context();
        setup s = { .o = small };
        int rows = k < 12 ? 4 : k == 12;
        eqnn_tensor *x[2];
        s.o.mlp = k >= 6 && k < 12;
        s.o.no_self = k == 1;
        s.near.radius = 5;
        x[0] = eqnn_as(eqnn_from_double(c, rows, 3, at[k % 6]), eqnn_irreps_make(c, "1x1o"));
        x[1] = test_features(c, rows, "4x0e+2x1o");
        CHECK(rotation_error(&s, x, 0) <= test_eps(1e-12, 1e-5));
        eqnn_tensor *y = network(x, 2, &s);
        CHECK(test_finite(y) && eqnn_rows(y) == rows);
        eqnn_tensor *g = eqnn_grad(eqnn_sum(eqnn_square(eqnn_as(y, NULL))), x[0]);
        CHECK(test_finite(g));
        eqnn_backward(eqnn_sum(eqnn_square(eqnn_as(y, NULL))));
        for (int i = 0; i < eqnn_parameter_count(c); i++)
            CHECK(test_finite(eqnn_gradient(eqnn_parameter_at(c, i))));
        eqnn_reset(c);
    }
}

TEST(degrees_left_out)
{
    eqnn_ctx *c = test_context();
    setup s = { .o = small };
    eqnn_tensor *x[2];
    s.o.dim = "4,0,2", s.o.heads = "2,0,1", s.o.dim_head = "2";
    s.o.all_degrees = 1;
    inputs(c, 5, x);
    CHECK(rotation_error(&s, x, 0) <= test_eps(1e-13, 3e-6));
    CHECK_TEXT(eqnn_label_of(network(x, 2, &s))->name, "4x0e+0x1o+2x2e");
    eqnn_ctx *d = test_context();
    s.o = small;
    s.o.dim = "4", s.o.heads = "2", s.o.dim_head = "2", s.o.degrees = 1;
    inputs(d, 5, x);
    CHECK(rotation_error(&s, x, 1) <= test_eps(1e-13, 3e-6)); /* degree 0 alone: O(3), too */
}

/* Higher degrees than the original can have. */
TEST(high_degrees)
{
    eqnn_ctx *c = test_context();
    setup s = { .o = small };
    eqnn_tensor *x[2];
    s.o.dim = "2", s.o.heads = "1", s.o.dim_head = "2", s.o.degrees = 7, s.o.depth = 1;
    inputs(c, 3, x);
    CHECK(rotation_error(&s, x, 0) <= test_eps(1e-12, 1e-5));
}

/* ---- neighbours ----------------------------------------------------------------------------- */

static int edges_into(const eqnn_graph *g, int node) { return g->first[node + 1] - g->first[node]; }

TEST(neighbours)
{
    eqnn_ctx *c = test_context();
    enum { N = 10 };
    double p[3 * N];
    int source[2 * N], target[2 * N], n = 0;
    eqnn_ints *bonded = NULL;
    for (int i = 0; i < N; i++) p[3 * i] = i, p[3 * i + 1] = 0, p[3 * i + 2] = 0;
    for (int i = 0; i + 1 < N; i++) source[n] = i, target[n++] = i + 1; /* one way only */
    source[n] = target[n] = 4;                                          /* and a loop   */
    n++;
    eqnn_tensor *pos = eqnn_from_double(c, N, 3, p);
    eqnn_graph_opts nodes = { .sources = N, .targets = N };
    eqnn_neighbour_opts o = { .bonds = eqnn_graph_make(c, n, source, target, &nodes),
                              .neighbours = -1, .bonded = &bonded };
    const eqnn_graph *g = eqnn_neighbour_graph(pos, &o);
    CHECK(g->edges == N - 1 && edges_into(g, 0) == 0 && edges_into(g, 4) == 1);
    o.bond_degrees = 3;
    g = eqnn_neighbour_graph(pos, &o);
    CHECK(edges_into(g, 9) == 3 && edges_into(g, 2) == 2);
    for (int e = 0; e < g->edges; e++)
        CHECK(eqnn_ints_data(bonded)[e] == g->target[e] - g->source[e]);
    o.max_bonds = 2;
    g = eqnn_neighbour_graph(pos, &o);
    CHECK(edges_into(g, 9) == 2 && g->source[g->first[9]] == 7); /* the fewest bonds in between */
    o.neighbours = 2; /* and the two nearest others, bonded or not */
    g = eqnn_neighbour_graph(pos, &o);
    CHECK(edges_into(g, 9) == 4 && edges_into(g, 0) == 2);
    o.radius = 1.5;
    g = eqnn_neighbour_graph(pos, &o);
    CHECK(edges_into(g, 9) == 2 && edges_into(g, 5) == 3);
    o.bonds = NULL;
    o.neighbours = 100;
    g = eqnn_neighbour_graph(pos, &o);
    CHECK(edges_into(g, 0) == 1 && edges_into(g, 5) == 2);
    g = eqnn_neighbour_graph(pos, NULL);
    CHECK(g->edges == N * (N - 1));
    o.radius = 2; /* at the radius itself is near, however many are asked for */
    for (int k = 0; k < 2; k++) {
        o.neighbours = k ? 5 : 0;
        g = eqnn_neighbour_graph(pos, &o);
        CHECK(edges_into(g, 5) == 4 && edges_into(g, 0) == 2);
    }
    o.neighbours = 1; /* two are equally near */
    CHECK(edges_into(eqnn_neighbour_graph(pos, &o), 5) == 1);
    for (int k = 0; k < 2; k++) {
        o.ties = 1;
        o.radius = k ? 0 : 2;
        g = eqnn_neighbour_graph(pos, &o);
        CHECK(edges_into(g, 5) == 2 && edges_into(g, 0) == 1);
    }
}

/* In training a random choice, the same for the same seed and tick; otherwise none. */
TEST(random_bonds)
{
    eqnn_ctx *c = test_context();
    enum { N = 12 };
    eqnn_tensor *pos = test_normal(c, N, 3);
    eqnn_neighbour_opts o = { .bonds = eqnn_complete_graph(c, N, NULL), .neighbours = -1,
                              .max_bonds = 3 };
    const eqnn_graph *g[5];
    int same[3] = { 1, 1, 1 };
    for (int k = 0; k < 5; k++) {
        if (k == 1) eqnn_training(c, 1);
        o.name = k == 3 ? "others" : NULL;
        if (k == 4) eqnn_tick(c);
        g[k] = eqnn_neighbour_graph(pos, &o);
        CHECK(g[k]->edges == 3 * N);
    }
    for (int e = 0; e < 3 * N; e++)
        for (int k = 0; k < 3; k++) same[k] &= g[1]->source[e] == g[k + 2]->source[e];
    CHECK(same[0] && !same[1] && !same[2]);
    eqnn_training(c, 0);
    const int example[N] = { 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1 };
    eqnn_neighbour_opts apart = { .neighbours = 2, .example = example, .examples = 3 };
    const eqnn_graph *a = eqnn_neighbour_graph(pos, &apart); /* the last example is empty */
    CHECK(a->examples == 3 && a->edges == 2 * N);
    for (int e = 0; e < a->edges; e++) CHECK(example[a->source[e]] == example[a->target[e]]);
}

/* ---- embeddings, sizes, sentences ----------------------------------------------------------- */

TEST(embeddings)
{
    eqnn_ctx *c = test_context();
    int token[6] = { 0, 1, 2, 2, 1, 0 }, kind[30], example[6] = { 0, 0, 0, 0, 1, 1 };
    eqnn_ints *bonded = NULL;
    eqnn_tensor *pos = test_normal(c, 6, 3);
    eqnn_equiformer_opts o = small;
    eqnn_neighbour_opts near = { .example = example, .bonded = &bonded, .bond_degrees = 2 };
    int a[3] = { 0, 1, 4 }, b[3] = { 1, 2, 5 };
    eqnn_graph_opts nodes = { .sources = 6, .targets = 6 };
    near.bonds = eqnn_graph_make(c, 3, a, b, &nodes);
    const eqnn_graph *g = eqnn_neighbour_graph(pos, &near);
    for (int e = 0; e < g->edges; e++) kind[e] = e % 3;
    o.tokens = 7, o.positions = 4, /* a table may be larger than what occurs */
    o.edge_tokens = 5, o.bond_degrees = 2, o.bond_dim = 2, o.edge_dim = 3;
    o.bonded = bonded;
    o.edge_token = eqnn_ints_make(c, g->edges, kind, 3, 0);
    o.edges = test_normal(c, g->edges, 2);
    eqnn_tensor *y = eqnn_equiformer(NULL, eqnn_ints_make(c, 6, token, 3, 0), pos, g, "m", &o);
    CHECK(eqnn_rows(y) == 6);
    eqnn_tensor *W = eqnn_parameter(c, "m.tp_in.kernel_unary.(0,1).rp.0.weight");
    CHECK(eqnn_cols(W) == 3 + 2 + 2 + 1); /* kinds, numbers, bonds, length */
    eqnn_backward(eqnn_sum(eqnn_square(eqnn_as(y, NULL))));
    const char *tables[4] = { "token_emb", "pos_emb", "edge_emb", "adj_emb" };
    const int entries[4] = { 7, 4, 5, 3 };
    for (int k = 0; k < 4; k++) {
        eqnn_tensor *w = eqnn_parameter(c, eqnn_format(c, "m.%s.weight", tables[k]));
        CHECK(eqnn_rows(w) == entries[k]);
        CHECK(eqnn_value(eqnn_sum(eqnn_abs(eqnn_gradient(w)))) > 0);
    }
    o.dim_in = 3;
    CHECK(eqnn_equiformer(NULL, eqnn_ints_make(c, 6, token, 3, 0), pos, g, "narrow", &o) != NULL);
    CHECK(eqnn_cols(eqnn_parameter(c, "narrow.token_emb.weight")) == 3);
    o.positions = 3;
    CHECK(!eqnn_equiformer(NULL, eqnn_ints_make(c, 6, token, 3, 0), pos, g, "n", &o));
    CHECK_ERROR(c, "more than 3 nodes");
}

/* What a network goes without, by the names of its weights. */
TEST(parts_left_out)
{
    static const char *const part[3] = { "layers.blocks.0.0.to_kv.self_interact.weights.1",
                                         "layers.blocks.0.0.to_kv.to_xi.weights.1",
                                         "tp_in.to_out.weights.1" };
    eqnn_ctx *c = test_context();
    eqnn_tensor *pos = test_normal(c, 4, 3), *x = test_normal(c, 4, 2);
    const eqnn_graph *g = eqnn_complete_graph(c, 4, NULL);
    for (int k = 0; k < 4; k++) {
        eqnn_equiformer_opts o = small;
        o.no_self = k == 1;
        o.no_project = k == 2;
        o.no_out = k == 3;
        CHECK(eqnn_equiformer(x, NULL, pos, g, eqnn_format(c, "m%d", k), &o) != NULL);
        for (int p = 0; p < 3; p++) {
            const char *name = eqnn_format(c, "m%d.%s", k, part[p]);
            CHECK((eqnn_parameter(c, name) != NULL) == (k != p + 1));
        }
    }
}

/* Numbers of weights of the original (its README's programs and others). */
typedef struct count {
    eqnn_equiformer_opts o;
    int scalars, vectors, tokens, kinds;
    size_t numbers;
} count;

TEST(parameter_counts)
{
#define ONE .dim = "4,4,2", .dim_head = "4", .heads = "2", .depth = 4, .reduce = 1, .mlp = 1
#define TWO .dim = "4,4,2", .dim_head = "4", .heads = "2", .depth = 48, .reversible = 1
#define THREE .dim = "64", .degrees = 3, .edge_dim = 16, .reduce = 1
    static const count list[] = {
        { { ONE }, 0, 0, 24, 0, 245176 },
        { { .dim = "4,4,2", .dim_head = "4", .heads = "2", .depth = 4, .reduce = 1 }, 0, 0, 24, 0,
          223520 },
        { { ONE, .linear_heads = 2 }, 0, 0, 24, 0, 246200 },
        { { TWO }, 0, 0, 24, 0, 2505702 },
        { { THREE }, 0, 0, 28, 4, 12019248 },
        { { THREE, .mlp = 1 }, 0, 0, 28, 4, 11523120 },
        { { THREE, .single_kv = 1 }, 0, 0, 28, 4, 2632752 },
        { { THREE, .single_kv = 1, .mlp = 1 }, 0, 0, 28, 4, 3217200 },
        { { THREE, .type_norms = 1 }, 0, 0, 28, 4, 12215856 },
        { { THREE, .nonlinear_out = 1 }, 0, 0, 28, 4, 12200240 },
        { { .dim = "32", .depth = 1, .dim_head = "64", .reduce = 1 }, 32, 0, 0, 0, 6678160 },
        { { .dim = "16,8,8,8", .dim_head = "16,8,8,8", .heads = "4,2,2,2", .depth = 10,
            .reversible = 1, .reduce = 1 }, 0, 0, 24, 0, 2537044 },
        { { .dim = "32" }, 32, 0, 0, 0, 4115936 },
        { { .dim = "32", .degrees = 3 }, 32, 0, 0, 0, 6202960 },
        { { .dim = "4,8,16", .reduce = 1 }, 32, 32, 0, 0, 2502440 },
        { { .dim = "128", .reduce = 1 }, 128, 0, 0, 0, 16810656 }
    };
    for (size_t k = 0; k < sizeof list / sizeof list[0]; k++) {
        if (list[k].numbers > 3000000 && sizeof(eqnn_real) == 8) continue; /* as in float */
        const count *a = &list[k];
        eqnn_ctx *c = test_context();
        int token[2] = { 0, 1 }, kind[2] = { 0, 1 };
        eqnn_tensor *pos = test_normal(c, 2, 3), *x = NULL;
        const eqnn_graph *g = eqnn_complete_graph(c, 2, NULL);
        eqnn_equiformer_opts o = a->o;
        o.edge_token = a->kinds ? eqnn_ints_make(c, 2, kind, a->kinds, 0) : NULL;
        if (a->scalars)
            x = test_features(c, 2, eqnn_format(c, "%dx0e+%dx1o", a->scalars, a->vectors));
        if (a->scalars && !a->vectors) x = test_features(c, 2, eqnn_format(c, "%dx0e", a->scalars));
        eqnn_recording(c, 0);
        eqnn_equiformer(x, a->tokens ? eqnn_ints_make(c, 2, token, a->tokens, 0) : NULL, pos, g, "",
                        &o);
        eqnn_recording(c, 1);
        if (eqnn_parameter_size(c) != a->numbers)
            printf("    case %d: %d numbers, not %d\n", (int)k, (int)eqnn_parameter_size(c),
                   (int)a->numbers);
        CHECK(eqnn_parameter_size(c) == a->numbers);
        CHECK_OK(c);
        test_context_count--;
        eqnn_free(c);
    }
}

TEST(sentences)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *pos = test_normal(c, 3, 3), *x = test_features(c, 3, "2x0e");
    const eqnn_graph *g = eqnn_complete_graph(c, 3, NULL);
    eqnn_equiformer_opts o = { .dim = "4,x" };
    CHECK(!eqnn_equiformer(x, NULL, pos, g, "m", &o));
    CHECK_ERROR(c, "\"4,x\" is no list");
    CHECK(!eqnn_equiformer(x, NULL, pos, g, "m", NULL));
    CHECK_ERROR(c, ".dim has no default");
    o.dim = "4,4,4";
    o.heads = "2,2";
    CHECK(!eqnn_equiformer(x, NULL, pos, g, "m", &o));
    CHECK_ERROR(c, "one for each of 3 degrees");
    o.heads = "2";
    CHECK(!eqnn_equiformer(NULL, NULL, pos, g, "m", &o));
    CHECK_ERROR(c, "neither features nor tokens");
    CHECK(!eqnn_equiformer(test_features(c, 3, "2x1o"), NULL, pos, g, "m", &o));
    CHECK_ERROR(c, "not 2x1o");
    CHECK(!eqnn_equiformer(test_features(c, 2, "2x0e"), NULL, pos, g, "m", &o));
    CHECK_ERROR(c, "2 rows of features");
    o.bond_dim = 3;
    CHECK(!eqnn_equiformer(x, NULL, pos, g, "m", &o));
    CHECK_ERROR(c, ".bond_dim and .bond_degrees need .bonded");
    o.bond_dim = 0;
    o.edge_dim = 2;
    CHECK(!eqnn_equiformer(x, NULL, pos, g, "m", &o));
    CHECK_ERROR(c, ".edge_dim need .edge_token");
    o.edges = test_normal(c, g->edges, 3);
    CHECK(!eqnn_equiformer(x, NULL, pos, g, "m", &o));
    CHECK_ERROR(c, ".edge_dim is 2, .edges has 3 columns");
    o.edge_dim = 0;
    o.edges = test_normal(c, 5, 2);
    CHECK(!eqnn_equiformer(x, NULL, pos, g, "m", &o));
    CHECK_ERROR(c, "[5,2]");
    CHECK(!eqnn_equiformer(NULL, NULL, NULL, g, "m", &o));
    CHECK_OK(c);
    for (int k = 0; k < 3; k++) {
        eqnn_neighbour_opts n = { .radius = k == 0 ? -1 : 0, .bond_degrees = k == 1 ? -1 : 0,
                                  .max_bonds = k == 2 ? -1 : 0 };
        CHECK(!eqnn_neighbour_graph(pos, &n));
        CHECK_ERROR(c, "neighbour_graph: .radius");
    }
}

static eqnn_tensor *standard_net(eqnn_tensor *x) { return eqnn_layer_norm(x, "n", NULL); }

/* Layer norm is one operation; its rule has a rule. */
TEST(standard_rows)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *x = test_normal(c, 4, 19);
    CHECK_DERIVATIVES(standard_net, x, 2);
    eqnn_norm_opts bare = { .no_affine = 1 };
    eqnn_tensor *y = eqnn_layer_norm(x, "m", &bare), *d = eqnn_sub(x, eqnn_mean_cols(x));
    eqnn_tensor *var = eqnn_shift(eqnn_mean_cols(eqnn_square(d)), 1e-5);
    CHECK(test_difference(y, eqnn_mul(d, eqnn_rsqrt(var))) <= test_eps(1e-14, 1e-6));
    CHECK(eqnn_rows(eqnn_layer_norm(eqnn_zeros(c, 0, 5), "o", NULL)) == 0);
}

TEST_MAIN
