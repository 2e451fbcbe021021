/* models.c - tests of section 13: symmetries of whole networks, forces, empty inputs, names,
   bits

   -v prints the equivariance errors. The numbers of the reference implementation are in
   golden.c. */
#include "test.h"

/* --- models as functions of positions and features --- */

static const eqnn_network_opts small = { .hidden = "5x0e+3x0o+4x1o+3x1e+2x2e+2x2o",
                                         .out = "2x0e+1x0o+1x1o+1x1e+1x2e",
                                         .layers = 2,
                                         .lmax = 2,
                                         .radius = 1.6,
                                         .basis = 6,
                                         .radial_neurons = 12,
                                         .neighbours = 5,
                                         .nodes = 10 };

typedef struct model {
    eqnn_network_opts network;
    eqnn_polynomial_opts polynomial;
    int use_polynomial, z, scalars; /* x[1] features, x[2] attributes where there are any */
    const int *example;
} model;

static eqnn_tensor *run(eqnn_tensor *const *x, int n, void *user)
{
    model m = *(model *)user;
    eqnn_graph_opts o = { .example = m.example };
    const eqnn_graph *g = eqnn_radius_graph(x[0], m.network.radius, &o);
    if (m.use_polynomial) {
        m.polynomial.x = n > 1 ? x[1] : NULL;
        return eqnn_polynomial(x[0], g, "", &m.polynomial);
    }
    if (m.scalars) m.network.edge_scalars = eqnn_norm(eqnn_edge_vectors(x[0], g));
    return eqnn_network(n > 1 ? x[1] : NULL, m.z ? x[2] : NULL, x[0], g, "", &m.network);
}

static eqnn_tensor *labelled(eqnn_tensor *x, const char *irreps)
{
    return eqnn_as(x, eqnn_irreps_make(eqnn_context(x), irreps));
}

static eqnn_tensor *atoms(eqnn_ctx *c, int n)
{
    return labelled(test_normal(c, n, 3), "1x1o");
}

/* --- symmetries --- */

static void check_symmetric(model *m, eqnn_tensor *const *x, int n, const char *what)
{
    eqnn_ctx *c = eqnn_context(x[0]);
    double turned = eqnn_check_equivariance(run, x, n, m, 3, NULL);
    eqnn_tensor *y = run(x, n, m), *moved[3] = { NULL, NULL, NULL };
    double t[3] = { 0.5, -1.25, 2 };
    for (int i = 0; i < n; i++) moved[i] = x[i];
    moved[0] = eqnn_add(x[0], labelled(eqnn_from_double(c, 1, 3, t), "1x1o"));
    double shifted = test_difference(run(moved, n, m), y);
    test_note("%s: O(3) %.1e, translation %.1e", what, turned, shifted);
    CHECK_NEAR(turned, 0, test_eps(1e-12, 2e-5));
    CHECK_NEAR(shifted, 0, test_eps(1e-12, 5e-5));
    CHECK(eqnn_rows(y) == eqnn_rows(x[0]));
}

TEST(network_is_equivariant)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *x[3] = { atoms(c, 14), NULL, NULL };
    model m = { .network = small };
    check_symmetric(&m, x, 1, "network");
}

TEST(network_with_features_and_edge_scalars)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *x[3] = { atoms(c, 14), labelled(test_normal(c, 14, 8), "2x0e+1x1o+1x1e"), NULL };
    model m = { .network = small, .scalars = 1 };
    check_symmetric(&m, x, 2, "network with features");
}

/* A scalar that tells an edge from its reverse; attributes of edges beside the harmonics. */
TEST(network_tells_directions)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *pos = atoms(c, 10);
    const eqnn_graph *g = eqnn_radius_graph(pos, 3, NULL);
    eqnn_network_opts o = small;
    eqnn_tensor *zero = eqnn_zeros(c, g->edges, 1), *of_pairs = eqnn_zeros(c, g->pairs, 1);
    double *up = malloc(sizeof *up * (size_t)g->edges);
    for (int e = 0; up && e < g->edges; e++) up[e] = g->source[e] < g->target[e];
    o.edge_scalars = zero;
    eqnn_tensor *y = eqnn_network(NULL, NULL, pos, g, "a", &o);
    o.edge_scalars = of_pairs;
    CHECK_NEAR(test_difference(eqnn_network(NULL, NULL, pos, g, "a", &o), y), 0,
               test_eps(1e-13, 1e-5));
    o.edge_scalars = eqnn_from_double(c, g->edges, 1, up);
    CHECK(test_difference(eqnn_network(NULL, NULL, pos, g, "a", &o), y) > 1e-3);
    o.edge_scalars = NULL;
    o.edge_attributes = labelled(test_normal(c, g->edges, 4), "1x0e+1x1e");
    eqnn_network(NULL, NULL, pos, g, "b", &o);
    CHECK(eqnn_parameter(c, "b.layers.0.first.fc.layer1.weight") != NULL);
    o.edge_attributes = eqnn_zeros(c, 1, 1);
    CHECK(!eqnn_network(NULL, NULL, pos, g, "b", &o));
    CHECK_ERROR(c, "edge_attributes [1,1] for");
    free(up);
}

static eqnn_tensor *with_attributes(eqnn_tensor *const *x, int n, void *user)
{
    eqnn_network_opts o = small;
    const eqnn_graph *g = *(const eqnn_graph **)user;
    (void)n;
    o.edge_attributes = x[1];
    return eqnn_network(NULL, NULL, x[0], g, "", &o);
}

TEST(network_with_edge_attributes)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *x[2] = { labelled(atoms(c, 9), "1x1o") };
    eqnn_graph_opts keep;
    int points[2] = { 1, 0 };
    memset(&keep, 0, sizeof keep);
    keep.keep = 1;
    const eqnn_graph *g = eqnn_radius_graph(x[0], 3, &keep);
    x[1] = labelled(test_normal(c, g->edges, 9), "1x0e+1x1o+1x2e");
    double turned = eqnn_check_equivariance(with_attributes, x, 2, &g, 3, NULL);
    double moved = eqnn_check_translation(with_attributes, x, 2, &g, points, 3, NULL);
    test_note("network with edge attributes: O(3) %.1e, translation %.1e", turned, moved);
    CHECK_NEAR(turned, 0, test_eps(1e-12, 2e-5));
    CHECK_NEAR(moved, 0, test_eps(1e-12, 5e-5));
    points[1] = 1; /* attributes are no points */
    CHECK(eqnn_check_translation(with_attributes, x, 2, &g, points, 1, NULL) > 1e-3);
    CHECK(isnan(eqnn_check_translation(with_attributes, x, 2, &g, NULL, 1, NULL)));
    CHECK_ERROR(c, "not said which inputs are points");
}

TEST(network_with_attributes)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *x[3] = { atoms(c, 12), test_normal(c, 12, 3), test_normal(c, 12, 2) };
    model m = { .network = small, .z = 1 };
    check_symmetric(&m, x, 3, "network with attributes 2x0e");
    eqnn_ctx *d = test_context();
    eqnn_tensor *y[3] = { atoms(d, 12), test_normal(d, 12, 3),
                          labelled(test_normal(d, 12, 4), "1x0e+1x1o") };
    check_symmetric(&m, y, 3, "network with attributes 1x0e+1x1o");
}

/* The output names an irrep twice: then the middle label cannot be merged. */
TEST(network_with_repeated_output)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *x[3] = { atoms(c, 10), NULL, NULL };
    model m = { .network = small };
    m.network.out = "1x1o+2x0e+2x1o+1x0e";
    check_symmetric(&m, x, 1, "network with repeated output");
}

TEST(polynomial_is_equivariant)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *x[2] = { atoms(c, 9), NULL };
    model m = { .use_polynomial = 1 };
    m.network.radius = 1.5;
    m.polynomial = (eqnn_polynomial_opts){ .mid = "4x0e+3x0o+3x1e+3x1o+2x2e+2x2o",
                                           .out = "1x1o+1x0e+1x0o",
                                           .neighbours = 4 };
    check_symmetric(&m, x, 1, "polynomial");
    m.polynomial.sum_last = 1;
    eqnn_ctx *d = test_context();
    eqnn_tensor *y[2] = { atoms(d, 9), labelled(test_normal(d, 9, 5), "2x0e+1x1e") };
    check_symmetric(&m, y, 2, "polynomial with features");
}

/* The sum over neighbours of the product of h[source] and Y with these weights. */
static eqnn_tensor *summed(eqnn_tensor *h, eqnn_tensor *Y, const eqnn_graph *g,
                           const eqnn_product *p, eqnn_tensor *w)
{
    return eqnn_scatter(eqnn_tensor_product(eqnn_gather(h, g), Y, w, p), g);
}

TEST(polynomial_is_its_formula)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *pos = atoms(c, 7), *x = labelled(test_normal(c, 7, 5), "2x0e+1x1e");
    const eqnn_graph *g = eqnn_radius_graph(pos, 1.5, NULL);
    eqnn_tensor *Y = eqnn_spherical_harmonics(eqnn_edge_vectors(pos, g), 2, NULL);
    const char *irreps[2] = { "3x0e+2x1o+1x2e", "1x1o+2x0e" };
    for (int sum = 0; sum < 2; sum++) {
        eqnn_polynomial_opts o = { .mid = irreps[0], .out = irreps[1], .lmax = 2, .neighbours = 4,
                                   .x = x, .sum_last = sum };
        eqnn_tensor *y = eqnn_polynomial(pos, g, "p", &o);
        const eqnn_product *p = eqnn_product_channelwise(c, eqnn_label_of(x), eqnn_label_of(Y),
                                                         NULL, NULL);
        eqnn_tensor *h = summed(x, Y, g, p, eqnn_full(c, 1, eqnn_product_weights(p), 1));
        for (int k = 0; k < 2; k++) {
            h = eqnn_scale(h, 0.5);
            p = eqnn_product_full(c, eqnn_label_of(h), eqnn_label_of(Y),
                                  eqnn_irreps_make(c, irreps[k]), NULL);
            h = summed(h, Y, g, p, eqnn_parameter(c, k ? "p.tp2.weight" : "p.tp1.weight"));
        }
        h = sum ? eqnn_scale(h, 0.5) : eqnn_mul(h, eqnn_inverse_degree(g));
        CHECK_SAME(y, h, test_eps(1e-13, 1e-5));
    }
}

/* .exact changes activations, and these by a thousandth. */
TEST(network_with_exact_moments)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *pos = atoms(c, 8);
    model m = { .network = small };
    eqnn_tensor *y = run(&pos, 1, &m);
    m.network.exact = 1;
    double change = test_difference(run(&pos, 1, &m), y);
    CHECK(change > 1e-4 && change < 0.05);
}

/* Features of one number, 1, are no features. */
TEST(polynomial_of_ones)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *x[2] = { atoms(c, 9), eqnn_full(c, 9, 1, 1) };
    model m = { .use_polynomial = 1 };
    m.network.radius = 1.5;
    m.polynomial = (eqnn_polynomial_opts){ .mid = "4x0e+3x1e+3x1o+2x2e",
                                           .out = "1x1o+1x0e",
                                           .neighbours = 4 };
    CHECK_SAME(run(x, 2, &m), run(x, 1, &m), test_eps(1e-13, 1e-5));
}

TEST(permuted_nodes)
{
    eqnn_ctx *c = test_context();
    int n = 13, p[13];
    for (int i = 0; i < n; i++) p[i] = (i * 5 + 3) % n;
    eqnn_ints *index = eqnn_ints_make(c, n, p, n, 0);
    eqnn_tensor *x[2] = { atoms(c, n), test_normal(c, n, 3) };
    eqnn_tensor *q[2] = { eqnn_take(x[0], index), eqnn_take(x[1], index) };
    model m = { .network = small };
    CHECK_SAME(run(q, 2, &m), eqnn_take(run(x, 2, &m), index), test_eps(1e-13, 2e-5));
}

/* An example's result does not depend on its company. */
TEST(examples_do_not_meet)
{
    eqnn_ctx *c = test_context();
    int example[18];
    for (int i = 0; i < 18; i++) example[i] = i < 7 ? 0 : i < 8 ? 1 : 2;
    eqnn_tensor *pos = atoms(c, 18);
    model m = { .network = small, .example = example };
    m.network.reduce = 1;
    eqnn_tensor *all = run(&pos, 1, &m);
    int first[] = { 0, 7, 8, 18 };
    m.example = NULL;
    for (int k = 0; k < 3; k++) {
        eqnn_tensor *one = eqnn_slice_rows(pos, first[k], first[k + 1] - first[k]);
        CHECK_SAME(run(&one, 1, &m), eqnn_slice_rows(all, k, 1), test_eps(1e-13, 2e-5));
    }
}

/* --- pairs, forces --- */

/* Radial weights made once a pair are those made once an edge. */
TEST(pairs_change_nothing)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *pos = atoms(c, 15);
    const eqnn_graph *g = eqnn_radius_graph(pos, small.radius, NULL);
    eqnn_graph single = *g;
    single.pairs = 0;
    CHECK(2 * g->pairs == g->edges && g->pairs > 20);
    eqnn_tensor *a = eqnn_network(NULL, NULL, pos, g, "", &small);
    eqnn_tensor *b = eqnn_network(NULL, NULL, pos, &single, "", &small);
    CHECK_SAME(a, b, test_eps(1e-13, 1e-5));
    eqnn_tensor *da = eqnn_grad(eqnn_sum(eqnn_square(eqnn_as(a, NULL))), pos);
    eqnn_tensor *db = eqnn_grad(eqnn_sum(eqnn_square(eqnn_as(b, NULL))), pos);
    CHECK_SAME(da, db, test_eps(1e-12, 5e-5));
}

static eqnn_tensor *forces(eqnn_tensor *const *x, int n, void *user)
{
    return eqnn_grad(eqnn_sum(run(x, n, user)), x[0]);
}

TEST(forces_by_differences)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *x[2] = { atoms(c, 6), test_normal(c, 6, 2) };
    model m = { .network = small };
    m.network.out = "1x0e";
    m.network.radius = 4; /* no atom crosses the radius */
    CHECK_DERIVATIVES_OF(run, x, 2, &m, 2);
    eqnn_tensor *F = forces(x, 2, &m), *total = eqnn_sum_rows(eqnn_as(F, NULL));
    for (int k = 0; k < 3; k++)
        CHECK_NEAR(eqnn_at(total, 0, k), 0, test_eps(1e-12, 1e-4)); /* Newton's third law */
    double turned = eqnn_check_equivariance(forces, x, 2, &m, 2, NULL);
    test_note("forces: O(3) %.1e", turned);
    CHECK_NEAR(turned, 0, test_eps(1e-11, 1e-4));
}

TEST(polynomial_by_differences)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *pos = eqnn_scale(atoms(c, 5), 0.3);
    model m = { .use_polynomial = 1 };
    m.network.radius = 9;
    m.polynomial = (eqnn_polynomial_opts){
        .mid = "2x0e+2x1o+1x1e+1x2e", .out = "1x0e", .lmax = 2, .neighbours = 4
    };
    CHECK_DERIVATIVES_OF(run, &pos, 1, &m, 2);
}

/* A loss on energies and forces; returns it, with all gradients summed. */
static double force_step(eqnn_ctx *c, int nodes, const eqnn_network_opts *o)
{
    eqnn_tensor *pos = eqnn_scale(eqnn_normal(c, "positions", nodes, 3), 2);
    const eqnn_graph *g = eqnn_radius_graph(pos, o->radius, NULL);
    eqnn_tensor *E = eqnn_network(NULL, NULL, pos, g, "net", o);
    eqnn_tensor *F = eqnn_neg(eqnn_grad(eqnn_sum(E), pos));
    eqnn_tensor *loss = eqnn_add(eqnn_mean(eqnn_square(E)),
                                 eqnn_mean(eqnn_square(eqnn_as(F, NULL))));
    eqnn_backward(loss);
    return eqnn_value(loss);
}

/* The same bits on any number of threads: loss, and the sum of a hash over all gradients. */
TEST(threads_change_no_bit)
{
    int threads[] = { 1, 2, 3, 8 };
    uint64_t hash[4];
    for (int k = 0; k < 4; k++) {
        eqnn_opts opts = test_opts();
        opts.threads = threads[k];
        eqnn_ctx *c = eqnn_make(&opts);
        eqnn_network_opts o = small;
        o.out = "1x0e";
        o.hidden = "16x0e+16x1o+8x2e+8x1e";
        double loss = force_step(c, 300, &o);
        uint64_t h = UINT64_C(14695981039346656037);
        for (int p = -1; p < eqnn_parameter_count(c); p++) {
            eqnn_tensor *g = p < 0 ? NULL : eqnn_gradient(eqnn_parameter_at(c, p));
            const unsigned char *b = p < 0 ? (const unsigned char *)&loss
                                           : (const unsigned char *)eqnn_data(g);
            size_t bytes = p < 0 ? sizeof loss
                                 : (size_t)eqnn_rows(g) * (size_t)eqnn_cols(g) * sizeof(eqnn_real);
            for (size_t i = 0; i < bytes; i++) h = (h ^ b[i]) * UINT64_C(1099511628211);
        }
        hash[k] = h;
        test_note("%d threads: loss %.17g, hash %016llx", threads[k], loss, (unsigned long long)h);
        CHECK_OK(c);
        eqnn_free(c);
        CHECK(hash[k] == hash[0]);
    }
}

/* --- the edges of the possible --- */

TEST(nothing_is_legal)
{
    for (int n = 0; n < 3; n++) {
        for (int kind = 0; kind < 2; kind++) {
            eqnn_ctx *c = test_context();
            eqnn_tensor *pos = labelled(eqnn_scale(test_normal(c, n, 3), 100), "1x1o");
            model m = { .network = small, .use_polynomial = kind };
            m.polynomial = (eqnn_polynomial_opts){ .mid = "2x0e+2x1o", .out = "1x0e+1x1o" };
            m.network.out = "1x0e+1x1o";
            eqnn_tensor *y = run(&pos, 1, &m),
                        *d = eqnn_grad(eqnn_sum(eqnn_square(eqnn_as(y, NULL))), pos);
            CHECK(eqnn_rows(y) == n && eqnn_cols(y) == 4 && eqnn_rows(d) == n && eqnn_cols(d) == 3);
            eqnn_backward(eqnn_add(eqnn_sum(eqnn_square(eqnn_as(y, NULL))),
                                   eqnn_sum(eqnn_square(eqnn_as(d, NULL)))));
            CHECK(n == 0 || isfinite(eqnn_at(y, 0, 0)));
            CHECK_OK(c);
        }
    }
}

/* Two atoms in one place: harmonics have no direction there, everything stays finite. */
TEST(coincident_atoms)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *pos = labelled(eqnn_zeros(c, 3, 3), "1x1o");
    model m = { .network = small };
    eqnn_tensor *y = run(&pos, 1, &m), *d = eqnn_grad(eqnn_sum(eqnn_square(eqnn_as(y, NULL))), pos);
    for (int i = 0; i < eqnn_cols(y); i++) CHECK(isfinite(eqnn_at(y, 0, i)));
    for (int i = 0; i < 3; i++) CHECK(isfinite(eqnn_at(d, 0, i)));
    eqnn_backward(eqnn_sum(eqnn_square(eqnn_as(d, NULL))));
    for (int p = 0; p < eqnn_parameter_count(c); p++)
        CHECK(isfinite(eqnn_value(eqnn_sum(eqnn_gradient(eqnn_parameter_at(c, p))))));
}

TEST(names_of_the_network)
{
    eqnn_ctx *c = test_context();
    static const char *names[] = { "net.layers.0.first.sc.weight",
                                   "net.layers.0.first.lin1.weight",
                                   "net.layers.0.first.fc.layer0.weight",
                                   "net.layers.0.first.fc.layer1.weight",
                                   "net.layers.0.first.lin2.weight",
                                   "net.layers.1.sc.weight",
                                   "net.layers.1.lin1.weight",
                                   "net.layers.1.fc.layer0.weight",
                                   "net.layers.1.fc.layer1.weight",
                                   "net.layers.1.lin2.weight" };
    eqnn_network_opts o = small;
    o.layers = 1;
    o.out = "1x1o";
    eqnn_tensor *pos = atoms(c, 5);
    eqnn_network(NULL, NULL, pos, eqnn_radius_graph(pos, 3, NULL), "net", &o);
    CHECK(eqnn_parameter_count(c) == 10);
    for (int i = 0; i < 10; i++) CHECK_TEXT(eqnn_parameter_name(c, i), names[i]);
}

/* E3Large of the blog has 102,905 weights, the book chapter's model 19,277, the polynomial 344. */
TEST(sizes_of_known_models)
{
    eqnn_network_opts blog = { .hidden = "8x0e+8x0o+16x1e+16x1o+8x2e+8x2o",
                               .out = "1x1o",
                               .radius = 3.5 };
    eqnn_polynomial_opts poly = { .mid = "8x0e+8x0o+16x1e+16x1o+8x2e+8x2o", .out = "1x1o" };
    size_t size[] = { 102905, 19277, 344 };
    for (int k = 0; k < 3; k++) {
        eqnn_ctx *c = test_context();
        eqnn_tensor *pos = atoms(c, 12);
        const eqnn_graph *g = eqnn_radius_graph(pos, 3.5, NULL);
        if (k == 1) blog.hidden = "5x0e+5x0o+5x1e+5x1o";
        if (k < 2) eqnn_network(NULL, NULL, pos, g, "", &blog);
        else eqnn_polynomial(pos, g, "", &poly);
        if (k != 1) CHECK(eqnn_parameter_size(c) == size[k]);
        test_note("model %d: %zu weights", k, eqnn_parameter_size(c));
    }
}

TEST(models_refuse)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *pos = atoms(c, 5), *r;
    const eqnn_graph *g = eqnn_radius_graph(pos, 3, NULL);
    eqnn_network_opts o = small;
    o.out = NULL;
    CHECK(!eqnn_network(NULL, NULL, pos, g, "", &o));
    CHECK_ERROR(c, "network: .hidden, .out and .radius must be given");
    CHECK(!eqnn_network_2106(NULL, NULL, pos, g, "", &o));
    CHECK_ERROR(c, "network_2106: .out and .radius must be given");
    CHECK(!eqnn_network(NULL, NULL, pos, NULL, "", &small));
    CHECK_ERROR(c, "network: there is no graph");
    CHECK(!eqnn_network_2106(NULL, NULL, pos, NULL, "", &small));
    CHECK_ERROR(c, "network_2106: there is no graph");
    CHECK(!eqnn_network(eqnn_full(c, 1, 2, 1), NULL, pos, g, "", &small));
    CHECK_ERROR(c, "1 rows of features for 5 sources");
    o = small;
    o.edge_scalars = r = eqnn_edge_vectors(pos, g);
    CHECK(!eqnn_network(NULL, NULL, pos, g, "", &o));
    CHECK_ERROR(c, "1x1o are not invariant");
    o.edge_scalars = eqnn_full(c, 1, 1, 1);
    CHECK(!eqnn_network(NULL, NULL, pos, g, "", &o));
    CHECK_ERROR(c, "network: edge_scalars [1,1]");
    CHECK(!eqnn_network_2106(NULL, NULL, pos, g, "", &o));
    CHECK_ERROR(c, "network_2106: edge_scalars [1,1]");
    o = small;
    o.hidden = "4x0o";
    CHECK(!eqnn_network(NULL, NULL, pos, g, "", &o));
    CHECK_ERROR(c, "reaches any of 4x0o");
    o.hidden = "4x0q";
    CHECK(!eqnn_network(NULL, NULL, pos, g, "", &o));
    CHECK_ERROR(c, "4x0q");
    CHECK(!eqnn_gated_conv(pos, NULL, eqnn_full(c, eqnn_rows(r), 4, 1), r, g, "a", "4x0e", NULL));
    CHECK_ERROR(c, "no label");
    CHECK(!eqnn_polynomial(pos, g, "", NULL));
    CHECK_ERROR(c, "must be given");
}

/* After the first steps nothing is asked of the system, whatever is computed. */
TEST(steady_state)
{
    eqnn_ctx *c = test_context();
    eqnn_network_opts o = small;
    o.out = "1x0e";
    eqnn_memory before = eqnn_memory_use(c);
    for (int step = 0; step < 5; step++) {
        force_step(c, 40, &o);
        eqnn_zero_gradients(c);
        eqnn_reset(c);
        if (step == 1) before = eqnn_memory_use(c);
    }
    CHECK(eqnn_memory_use(c).lasting == before.lasting);
    test_note("lasting %zu bytes, step %zu", before.lasting, before.step_peak);
}

/* --- known answers --- */

/* One layer written out with small operations and the weights of eqnn_conv. */
TEST(conv_is_its_formula)
{
    eqnn_ctx *c = test_context();
    int n = 7;
    eqnn_tensor *pos = atoms(c, n), *x = labelled(test_normal(c, n, 5), "2x0e+1x1o");
    const eqnn_graph *g = eqnn_radius_graph(pos, 2, NULL);
    eqnn_tensor *r = eqnn_edge_vectors(pos, g), *Y = eqnn_spherical_harmonics(r, 1, NULL);
    eqnn_tensor *b = eqnn_radial_basis(eqnn_norm(r), 4, 2, NULL);
    const eqnn_irreps *out = eqnn_irreps_make(c, "3x0e+2x1o+1x1e");
    eqnn_conv_opts o = { .radial_neurons = 8, .neighbours = 3, .exact = 1 };
    eqnn_tensor *y = eqnn_conv(x, NULL, Y, b, g, "conv", out, &o);

    const eqnn_product *p = eqnn_product_channelwise(c, eqnn_label_of(x), eqnn_label_of(Y), out,
                                                     NULL);
    eqnn_tensor *h = eqnn_enter(x, "conv");
    eqnn_tensor *s = eqnn_irreps_linear(h, "sc", out->name, NULL);
    h = eqnn_irreps_linear(h, "lin1", "2x0e+1x1o", NULL);
    eqnn_tensor *w = eqnn_fc(b, "fc", eqnn_format(c, "8,%d", eqnn_product_weights(p)),
                             &(eqnn_fc_opts){ .act = EQNN_SILU, .exact = 1 });
    h = eqnn_scatter(eqnn_tensor_product(eqnn_gather(h, g), Y, w, p), g);
    h = eqnn_irreps_linear(eqnn_scale(h, 1 / sqrt(3)), "lin2", out->name, NULL);
    double angle = acos(-1) / 8,
           factor[6] = { cos(angle), cos(angle), cos(angle), cos(angle), cos(angle), 1 };
    h = eqnn_scale_copies(h, eqnn_from_double(c, 1, 6, factor)); /* no vector of x reaches 1x1e */
    h = eqnn_leave(eqnn_add(eqnn_scale(s, sin(angle)), h));
    CHECK_SAME(y, h, test_eps(1e-13, 1e-5));
}

/* Of out that no product reaches the self-connection is left: times e3nn's sin(pi / 8), or alone
   where layers mix. */
TEST(conv_without_a_message)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *pos = atoms(c, 5), *x = labelled(test_normal(c, 5, 2), "2x0e");
    const eqnn_graph *g = eqnn_radius_graph(pos, 2, NULL);
    eqnn_tensor *r = eqnn_edge_vectors(pos, g), *b = eqnn_radial_basis(eqnn_norm(r), 4, 2, NULL);
    for (int mixing = 0; mixing < 2; mixing++) {
        eqnn_conv_opts o = { .mixing = mixing };
        eqnn_tensor *y = eqnn_conv(x, NULL, labelled(r, "1x1o"), b, g, "conv",
                                   eqnn_irreps_make(c, "3x0e"), &o);
        eqnn_tensor *s = eqnn_leave(eqnn_irreps_linear(eqnn_enter(x, "conv"), "sc", "3x0e", NULL));
        CHECK_SAME(y, eqnn_scale(s, mixing ? 1 : sin(acos(-1) / 8)), test_eps(1e-15, 1e-6));
    }
}

/* A layer is a convolution and a gate, both with the moments asked for. */
TEST(gated_conv_is_conv_and_gate)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *pos = atoms(c, 6), *x = labelled(test_normal(c, 6, 2), "2x0e");
    const eqnn_graph *g = eqnn_radius_graph(pos, 2, NULL);
    eqnn_tensor *r = eqnn_edge_vectors(pos, g), *b = eqnn_radial_basis(eqnn_norm(r), 4, 2, NULL);
    eqnn_tensor *Y = eqnn_spherical_harmonics(r, 1, NULL);
    const eqnn_act silu = EQNN_SILU, sigmoid = EQNN_SIGMOID;
    eqnn_gate_spec gate = { .scalars = eqnn_irreps_make(c, "3x0e"),
                            .gates = eqnn_irreps_make(c, "2x0e"),
                            .gated = eqnn_irreps_make(c, "2x1o"),
                            .act_scalars = &silu, .act_gates = &sigmoid };
    for (int exact = 0; exact < 2; exact++) {
        eqnn_conv_opts o = { .exact = exact };
        eqnn_tensor *y = eqnn_gated_conv(x, NULL, Y, b, g, "layer", "3x0e+2x1o", &o);
        gate.exact = exact;
        eqnn_tensor *h = eqnn_conv(eqnn_enter(x, "layer"), NULL, Y, b, g, "first",
                                   eqnn_gate_in(c, &gate), &o);
        CHECK_SAME(y, eqnn_leave(eqnn_gate(h, &gate)), test_eps(1e-15, 1e-7));
    }
}

/* What is left out is what the manual says: the same weights give the same numbers; negative
   numbers stand for 0. */
TEST(defaults_of_networks)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *pos = atoms(c, 4);
    const eqnn_graph *g = eqnn_radius_graph(pos, 2, NULL);
    eqnn_tensor *r = eqnn_edge_vectors(pos, g), *b = eqnn_radial_basis(eqnn_norm(r), 4, 2, NULL);
    eqnn_tensor *Y = eqnn_spherical_harmonics(r, 1, NULL), *x = labelled(pos, "1x1o");
    const eqnn_irreps *out = eqnn_irreps_make(c, "2x0e");
    eqnn_conv_opts conv = { .radial_layers = 1, .radial_neurons = 64, .neighbours = 1 };
    eqnn_tensor *y = eqnn_conv(x, NULL, Y, b, g, "conv", out, NULL);
    CHECK_SAME(eqnn_conv(x, NULL, Y, b, g, "conv", out, &conv), y, 0);
    conv.radial_layers = -1;
    CHECK(eqnn_conv(x, NULL, Y, b, g, "direct", out, &conv) != NULL);
    CHECK(eqnn_rows(eqnn_parameter(c, "direct.fc.layer0.weight")) == 4);
    CHECK(!eqnn_parameter(c, "direct.fc.layer1.weight"));
    for (int old = 0; old < 2; old++) {
        eqnn_tensor *(*net)(eqnn_tensor *, eqnn_tensor *, eqnn_tensor *, const eqnn_graph *,
                            const char *, const eqnn_network_opts *) =
            old ? eqnn_network_2106 : eqnn_network;
        const char *hidden = old ? NULL : "3x0e+2x1o", *name = old ? "v2106" : "v2101";
        eqnn_network_opts few = { .hidden = hidden, .out = "1x0e+1x1o", .radius = 2, .reduce = 1 };
        eqnn_network_opts all = few;
        all.layers = 3, all.lmax = old ? 2 : 3, all.basis = 10, all.radial_layers = 1;
        all.radial_neurons = old ? 100 : 128, all.neighbours = all.nodes = 1;
        if (old) all.hidden = "50x0o+50x0e+50x1o+50x1e+50x2o+50x2e";
        y = net(NULL, NULL, pos, g, name, &few);
        CHECK_SAME(net(NULL, NULL, pos, g, name, &all), y, 0);
        few.hidden = "5x0e", few.lmax = few.layers = -1; /* 1 x 0e alone reaches 1 x 0e */
        name = eqnn_format(c, "flat%d", old);
        CHECK(net(NULL, NULL, pos, g, name, &few) != NULL);
        name = eqnn_format(c, "%s.%slayers.0.fc.layer1.weight", name, old ? "mp." : "");
        CHECK(eqnn_cols(eqnn_parameter(c, name)) == 1);
    }
}

/* Energy of a periodic network, of positions and cell under a strain I + h e_a e_b. */
static double strained(eqnn_ctx *c, const double *x, int n, const double *cell, int a, int b,
                       double h)
{
    double y[60], box[9];
    for (int i = 0; i < 3 * n; i++) y[i] = x[i] + (i % 3 == b ? h * x[i - b + a] : 0);
    for (int i = 0; i < 9; i++) box[i] = cell[i] + (i % 3 == b ? h * cell[i - b + a] : 0);
    eqnn_graph_opts o = { .cell = box };
    eqnn_network_opts m = { .hidden = "4x0e+3x1o", .out = "1x0e", .radius = 2, .reduce = 1 };
    eqnn_tensor *pos = eqnn_from_double(c, n, 3, y);
    return eqnn_value(eqnn_network(NULL, NULL, pos, eqnn_radius_graph(pos, 2, &o), "w", &m));
}

TEST(virial)
{
    eqnn_ctx *c = test_context();
    static const double cell[9] = { 3, 0.2, 0, -0.3, 3.2, 0.1, 0.4, 0, 2.9 };
    enum { N = 9 };
    double x[3 * N], h = test_eps(1e-5, 3e-3), largest = 0;
    for (int i = 0; i < 3 * N; i++) x[i] = 3 * (0.5 + 0.5 * sin(7.7 * i * i + i));
    eqnn_network_opts m = { .hidden = "4x0e+3x1o", .out = "1x0e", .radius = 2, .reduce = 1 };
    eqnn_tensor *pos = eqnn_from_double(c, N, 3, x);
    const eqnn_graph *g = eqnn_radius_graph(pos, 2, &(eqnn_graph_opts){ .cell = cell });
    eqnn_tensor *r = eqnn_edge_vectors(pos, g), *d[2];
    eqnn_tensor *E = eqnn_network(NULL, NULL, pos, eqnn_graph_vectors(g, r), "w", &m);
    eqnn_tensor *plain = eqnn_network(NULL, NULL, pos, g, "w", &m);
    CHECK_SAME(E, plain, 0);
    eqnn_grads(E, (eqnn_tensor *[]){ pos, r }, 2, d);
    CHECK_SAME(d[0], eqnn_grad(plain, pos), 0);
    eqnn_tensor *W = eqnn_matmul_t(eqnn_as(r, NULL), eqnn_as(d[1], NULL), 1, 0);
    for (int k = 0; k < 9; k++) largest = fmax(largest, fabs(eqnn_at(W, k / 3, k % 3)));
    for (int k = 0; k < 9; k++) {
        double up = strained(c, x, N, cell, k / 3, k % 3, h);
        double down = strained(c, x, N, cell, k / 3, k % 3, -h);
        CHECK_NEAR(eqnn_at(W, k / 3, k % 3), (up - down) / (2 * h), test_eps(1e-7, 2e-2) * largest);
    }
    CHECK(largest > 1e-3);
    CHECK(!eqnn_graph_vectors(g, pos));
    CHECK_ERROR(c, "graph_vectors: [9,3] for a graph of");
}

TEST_MAIN
