/* layers.c - products made from labels alone, norms, norm activations, batch norm and dropout of
   irreps, extracting blocks: values against loops written out here, derivatives against
   differences, symmetry under random rotations and reflections, and the awkward points: zero
   vectors, no rows, no 0e. */
#include "test.h"

static double eps(void) { return test_eps(1e-12, 2e-5); }

static const char *name_of(const eqnn_label *a) { return a ? a->name : NULL; }

/* --- products --- */

static eqnn_tensor *product(eqnn_tensor *const *x, int n, void *user)
{
    return eqnn_tensor_product(x[0], n > 1 ? x[1] : x[0], NULL, (const eqnn_product *)user);
}

static eqnn_tensor *weighted(eqnn_tensor *const *x, int n, void *user)
{
    (void)n;
    return eqnn_tensor_product(x[0], x[0], x[1], (const eqnn_product *)user);
}

TEST(outer)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *x[2] = { test_features(c, 4, "2x0e+1x1o"), test_features(c, 4, "1x1o") };
    const eqnn_irreps *a = eqnn_label_of(x[0]), *b = eqnn_label_of(x[1]);
    const eqnn_product *p = eqnn_product_outer(c, a, b, NULL, NULL);
    CHECK_TEXT(name_of(eqnn_product_out(p)), "1x0e+2x1o+1x1e+1x2e");
    CHECK(eqnn_product_weights(p) == 0 && eqnn_product_outer(c, a, b, NULL, NULL) == p);
    eqnn_tensor *z = product(x, 2, (void *)(size_t)p);
    double dot = 0, cross = eqnn_at(x[0], 1, 3) * eqnn_at(x[1], 1, 2) -
                            eqnn_at(x[0], 1, 4) * eqnn_at(x[1], 1, 1);
    for (int m = 0; m < 3; m++) {
        dot += eqnn_at(x[0], 1, 2 + m) * eqnn_at(x[1], 1, m);
        for (int u = 0; u < 2; u++) /* a scalar times a vector */
            CHECK_NEAR(eqnn_at(z, 1, 1 + 2 * m + u), eqnn_at(x[0], 1, u) * eqnn_at(x[1], 1, m),
                       eps());
    }
    CHECK_NEAR(eqnn_at(z, 1, 0), dot / sqrt(3.), eps());
    CHECK_NEAR(eqnn_at(z, 1, 7), cross / sqrt(2.), eps()); /* sqrt3 / sqrt6 */
    CHECK_DERIVATIVES_OF(product, x, 2, (void *)(size_t)p, 2);
    CHECK_SYMMETRY(product, x, 2, (void *)(size_t)p);
    p = eqnn_product_outer(c, a, b, eqnn_irreps_make(c, "1e+2e"), NULL);
    CHECK_TEXT(name_of(eqnn_product_out(p)), "1x1e+1x2e");
    p = eqnn_product_outer(c, a, eqnn_irreps_make(c, ""), NULL, NULL);
    CHECK(eqnn_cols(eqnn_tensor_product(x[0], eqnn_zeros(c, 1, 0), NULL, p)) == 0);
    eqnn_product_outer(c, a, NULL, NULL, NULL);
    CHECK_ERROR(c, "missing");
    a = eqnn_irreps_make(c, "60000x0e");
    eqnn_product_outer(c, a, a, NULL, NULL);
    CHECK_ERROR(c, "more copies");
}

/* Lists that say the same in other blocks give the same numbers, in e3nn's order. */
TEST(outer_of_split_lists)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *e = test_normal(c, 3, 13), *y = test_features(c, 3, "2x1o");
    eqnn_tensor *x = eqnn_from_e3nn(e, eqnn_irreps_make(c, "1x1o+0x0e+2x1o+3x0e+1x0e"));
    eqnn_tensor *s = eqnn_from_e3nn(e, eqnn_irreps_make(c, "3x1o+4x0e"));
    const eqnn_product *p = eqnn_product_outer(c, eqnn_label_of(x), eqnn_label_of(y), NULL, NULL);
    CHECK(p == eqnn_product_outer(c, eqnn_label_of(s), eqnn_label_of(y), NULL, NULL));
    CHECK_SAME(eqnn_tensor_product(x, y, NULL, p), eqnn_tensor_product(s, y, NULL, p), 0);
    eqnn_tensor *both[2] = { x, y };
    CHECK_DERIVATIVES_OF(product, both, 2, (void *)(size_t)p, 1);
    CHECK_SYMMETRY(product, both, 2, (void *)(size_t)p);
    CHECK(eqnn_rows(eqnn_tensor_product(eqnn_slice_rows(x, 0, 0), eqnn_slice_rows(y, 0, 0), NULL,
                                        p)) == 0);
    eqnn_tensor_product(eqnn_as(e, eqnn_irreps_make(c, "4x0e+3x1o")), y, NULL, p);
    CHECK_ERROR(c, "the product wants");
}

TEST(elementwise)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *x[2] = { test_features(c, 4, "2x0e+3x1o+1x2e"), test_features(c, 4, "4x1o+2x0o") };
    const eqnn_irreps *a = eqnn_label_of(x[0]), *b = eqnn_label_of(x[1]);
    const eqnn_product *p = eqnn_product_elementwise(c, a, b, NULL, NULL);
    CHECK_TEXT(name_of(eqnn_product_out(p)), "2x1o+2x0e+2x1e+2x2e+1x1e+1x2o");
    CHECK(eqnn_product_elementwise(c, a, b, NULL, NULL) == p);
    CHECK_DERIVATIVES_OF(product, x, 2, (void *)(size_t)p, 2);
    CHECK_SYMMETRY(product, x, 2, (void *)(size_t)p);
    eqnn_tensor *z = product(x, 2, (void *)(size_t)p); /* scalars first: the plain product */
    for (int m = 0; m < 3; m++)
        for (int u = 0; u < 2; u++)
            CHECK_NEAR(eqnn_at(z, 2, 2 * m + u), eqnn_at(x[0], 2, u) * eqnn_at(x[1], 2, 4 * m + u),
                       eps());
    p = eqnn_product_elementwise(c, a, eqnn_irreps_make(c, "6x0e"), eqnn_irreps_make(c, "1o"),
                                 NULL);
    CHECK_TEXT(name_of(eqnn_product_out(p)), "3x1o");
    eqnn_product_elementwise(c, a, eqnn_irreps_make(c, "5x0e"), NULL, NULL);
    CHECK_ERROR(c, "do not pair off");
    p = eqnn_product_elementwise(c, eqnn_irreps_make(c, ""), eqnn_irreps_make(c, ""), NULL, NULL);
    CHECK(p && eqnn_product_out(p)->cols == 0);
}

/* mean of z^2 over the rows for every column, and its largest distance from what it should be */
static double moment_error(const eqnn_tensor *z, double want)
{
    double worst = 0;
    for (int k = 0; k < eqnn_cols(z); k++) {
        double sum = 0;
        for (int i = 0; i < eqnn_rows(z); i++) sum += eqnn_at(z, i, k) * eqnn_at(z, i, k);
        worst = fmax(worst, fabs(sum / eqnn_rows(z) / want - 1));
    }
    return worst;
}

TEST(square)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *x = test_features(c, 4, "3x0e+2x1o+1x2e");
    const eqnn_irreps *a = eqnn_label_of(x), *even = eqnn_irreps_make(c, "0e+2e");
    const eqnn_product *p = eqnn_product_square(c, a, NULL, NULL);
    CHECK(eqnn_product_square(c, a, NULL, NULL) == p && eqnn_product_square(c, a, even, NULL) != p);
    CHECK(eqnn_product_out(p)->cols == 14 * 15 / 2); /* as many as a symmetric matrix has */
    CHECK_DERIVATIVES_OF(product, &x, 1, (void *)(size_t)p, 2);
    CHECK_SYMMETRY(product, &x, 1, (void *)(size_t)p);
    /* components of variance 1 give components of mean square 1 */
    eqnn_tensor *many = test_features(c, 20000, a->name);
    double error = moment_error(eqnn_tensor_product(many, many, NULL, p), 1);
    test_note("square: mean squares are 1 but for %.3f", error);
    CHECK(error < 0.15);
    CHECK(eqnn_rows(eqnn_tensor_product(eqnn_slice_rows(x, 0, 0), eqnn_slice_rows(x, 0, 0), NULL,
                                        p)) == 0);
    p = eqnn_product_square(c, eqnn_irreps_make(c, "1x1o"), NULL, NULL);
    CHECK_TEXT(name_of(eqnn_product_out(p)), "1x0e+1x2e");
}

/* The square holds what the outer product of x with itself does, each pair once. */
TEST(square_and_outer)
{
    eqnn_ctx *c = test_context();
    eqnn_product_opts o;
    eqnn_tensor *x = test_features(c, 3, "2x1o");
    memset(&o, 0, sizeof o);
    o.irrep_kind = EQNN_IRREP_PLAIN;
    const eqnn_product *p = eqnn_product_square(c, eqnn_label_of(x), NULL, &o);
    const eqnn_product *q = eqnn_product_outer(c, eqnn_label_of(x), eqnn_label_of(x), NULL, &o);
    CHECK_TEXT(name_of(eqnn_product_out(p)), "1x0e+2x0e+1x1e+1x2e+2x2e");
    CHECK_TEXT(name_of(eqnn_product_out(q)), "4x0e+4x1e+4x2e");
    eqnn_tensor *s = product(&x, 1, (void *)(size_t)p), *z = product(&x, 1, (void *)(size_t)q);
    static const int pair[3] = { 1, 0, 3 }; /* u < v, then u = v, of (u,v) = u 2 + v */
    for (int k = 0; k < 3; k++) CHECK_NEAR(eqnn_at(s, 0, k), eqnn_at(z, 0, pair[k]), eps());
    for (int m = 0; m < 3; m++)
        CHECK_NEAR(eqnn_at(s, 0, 3 + m), eqnn_at(z, 0, 4 + 4 * m + 1), eps());
    for (int m = 0; m < 5; m++) {
        CHECK_NEAR(eqnn_at(s, 0, 6 + m), eqnn_at(z, 0, 16 + 4 * m + 1), eps());
        for (int k = 1; k < 3; k++)
            CHECK_NEAR(eqnn_at(s, 0, 11 + 2 * m + k - 1), eqnn_at(z, 0, 16 + 4 * m + pair[k]),
                       eps());
    }
}

/* Neighbours of one kind in the output are one block: the weights' order hangs on it. */
TEST(square_full_joins)
{
    eqnn_ctx *c = test_context();
    const eqnn_irreps *in = eqnn_irreps_make(c, "2x1o"), *cut = eqnn_irreps_make(c, "2x0e+1x0e");
    const eqnn_product *p = eqnn_product_square_full(c, in, cut, NULL),
                       *q = eqnn_product_square_full(c, in, eqnn_irreps_make(c, "3x0e"), NULL);
    eqnn_tensor *x = eqnn_as(test_normal(c, 4, 6), in), *w = test_normal(c, 1, 9);
    CHECK(eqnn_product_weights(p) == 9);
    CHECK_SAME(eqnn_tensor_product(x, x, w, p), eqnn_tensor_product(x, x, w, q), 0);
    CHECK_OK(c);
}

TEST(square_full)
{
    for (int kind = 0; kind < 3; kind++) {
        eqnn_ctx *c = test_context();
        eqnn_product_opts o;
        memset(&o, 0, sizeof o);
        o.irrep_kind = (eqnn_irrep_kind)kind;
        eqnn_tensor *x[2] = { test_features(c, 3, "3x0e+2x1o+1x1e"), NULL };
        const eqnn_irreps *out = eqnn_irreps_make(c, "2x0e+2x1o+0x1e+2x2e+1x5e");
        const eqnn_product *p = eqnn_product_square_full(c, eqnn_label_of(x[0]), out, &o);
        CHECK(eqnn_product_out(p) == eqnn_irreps_simplify(c, out) && eqnn_product_weights(p) > 0 &&
              !eqnn_product_reaches(p, 3));
        x[1] = test_normal(c, 1, eqnn_product_weights(p));
        CHECK_DERIVATIVES_OF(weighted, x, 2, (void *)(size_t)p, 2);
        CHECK_SYMMETRY(weighted, x, 2, (void *)(size_t)p);
        x[1] = test_normal(c, 3, eqnn_product_weights(p));
        CHECK_SYMMETRY(weighted, x, 2, (void *)(size_t)p);
        eqnn_product_square_full(c, eqnn_label_of(x[0]), NULL, &o);
        CHECK_ERROR(c, "missing");
    }
}

/* --- norms --- */

static eqnn_tensor *norms(eqnn_tensor *const *x, int n, void *user)
{
    (void)n, (void)user;
    return eqnn_norm_copies(x[0]);
}

TEST(norm_copies)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *x = test_features(c, 3, "2x1o+1x0o+1x2e"), *s = eqnn_norm_copies(x);
    CHECK(eqnn_cols(s) == 4 && eqnn_label_of(s) == NULL);
    CHECK_NEAR(eqnn_at(s, 1, 2), fabs(eqnn_at(x, 1, 6)), eps());
    CHECK_SAME(eqnn_square(s), eqnn_square_copies(x), eps());
    CHECK_DERIVATIVES_OF(norms, &x, 1, NULL, 2);
    CHECK_SYMMETRY(norms, &x, 1, NULL);
    x = eqnn_as(eqnn_zeros(c, 2, 12), eqnn_label_of(x));
    eqnn_tensor *g = eqnn_grad(eqnn_sum(eqnn_norm_copies(x)), x),
                *h = eqnn_grad(eqnn_sum(eqnn_as(g, NULL)), x);
    for (int k = 0; k < 12; k++) {
        CHECK_NEAR(eqnn_at(g, 0, k), 0, 0);
        CHECK_NEAR(eqnn_at(h, 0, k), 0, 0);
    }
    CHECK(eqnn_cols(eqnn_norm_copies(eqnn_zeros(c, 3, 0))) == 0);
}

typedef struct activation_case { eqnn_act act; eqnn_norm_activation_opts o; } activation_case;

static eqnn_tensor *activation(eqnn_tensor *const *x, int n, void *user)
{
    activation_case *k = (activation_case *)user;
    (void)n;
    return eqnn_norm_activation(x[0], "act", k->act, &k->o);
}

TEST(norm_activation)
{
    for (int option = 0; option < 4; option++) {
        eqnn_ctx *c = test_context();
        activation_case k = { EQNN_SILU, { 0, option & 1, option >> 1 } };
        eqnn_tensor *x = test_features(c, 3, "2x0e+2x1o+1x0o+1x2e"), *y = activation(&x, 1, &k),
                    *b = NULL;
        const double bias[6] = { 0.1, -0.3, 0.5, 0.7, -0.2, 0.4 };
        CHECK(eqnn_label_of(y) == eqnn_label_of(x) && eqnn_parameter_count(c) == (option & 1));
        if (option & 1) {
            b = eqnn_parameter(c, "act.biases");
            for (int u = 0; u < 6; u++) CHECK_NEAR(eqnn_at(b, 0, u), 0, 0);
            eqnn_set(b, bias);
            y = activation(&x, 1, &k);
        }
        for (int u = 0; u < 2; u++) {
            double n = eqnn_at(eqnn_norm_copies(x), 1, 2 + u), s = n + (b ? bias[2 + u] : 0);
            double scale = s / (1 + exp(-s)) / (option >> 1 ? 1 : n);
            for (int m = 0; m < 3; m++)
                CHECK_NEAR(eqnn_at(y, 1, 2 + 2 * m + u), scale * eqnn_at(x, 1, 2 + 2 * m + u),
                           eps());
        }
        CHECK_DERIVATIVES_OF(activation, &x, 1, &k, 2);
        CHECK_SYMMETRY(activation, &x, 1, &k);
        x = eqnn_slice_rows(x, 0, 0);
        CHECK(eqnn_rows(activation(&x, 1, &k)) == 0);
    }
}

/* At zero the layer is a constant times x: the value is 0, the slope act(eps + b) / eps, or
   act(b). */
TEST(norm_activation_at_zero)
{
    for (int option = 0; option < 2; option++) {
        eqnn_ctx *c = test_context();
        activation_case k = { EQNN_SIGMOID, { 1e-3, 0, option } };
        double slope = option ? 0.5 : 1 / (1 + exp(-1e-3)) / 1e-3;
        eqnn_tensor *x = eqnn_as(eqnn_zeros(c, 2, 4), eqnn_irreps_make(c, "1x1o+1x0e"));
        eqnn_tensor *y = activation(&x, 1, &k);
        eqnn_tensor *g = eqnn_as(eqnn_grad(eqnn_sum(eqnn_as(y, NULL)), x), NULL);
        eqnn_tensor *h = eqnn_grad(eqnn_sum(g), x), *force = eqnn_grad(eqnn_sum(eqnn_square(g)), x);
        for (int i = 0; i < 4; i++) {
            CHECK_NEAR(eqnn_at(y, 1, i), 0, 0);
            CHECK_NEAR(eqnn_at(g, 1, i), slope, eps());
            CHECK_NEAR(eqnn_at(h, 1, i), 0, 0);
            CHECK_NEAR(eqnn_at(force, 1, i), 0, 0);
        }
    }
}

/* --- batch norm --- */

static eqnn_tensor *batch_norm(eqnn_tensor *const *x, int n, void *user)
{
    (void)n;
    return eqnn_irreps_batch_norm(x[0], "bn", (eqnn_irreps_norm_opts *)user);
}

static eqnn_ints *examples(eqnn_ctx *c, int rows, int range)
{
    int of[64];
    for (int i = 0; i < rows; i++) of[i] = i * range / rows;
    return eqnn_ints_make(c, rows, of, range, 0);
}

TEST(batch_norm_options)
{
    for (int bits = 0; bits < 128; bits++) {
        eqnn_ctx *c = test_context();
        eqnn_irreps_norm_opts o;
        memset(&o, 0, sizeof o);
        o.no_affine = bits & 1;
        o.no_bias = bits >> 1 & 1;
        o.norm = bits >> 2 & 1;
        o.instance = bits >> 3 & 1;
        o.max = bits >> 4 & 1;
        if (bits >> 5 & 1) o.example = examples(c, 12, 4);
        eqnn_training(c, bits >> 6 & 1);
        eqnn_tensor *x = test_features(c, 12, "2x0e+2x1o+1x0o+1x0e");
        eqnn_tensor *y = batch_norm(&x, 1, &o);
        CHECK(eqnn_label_of(y) == eqnn_label_of(x));
        CHECK((eqnn_parameter(c, "bn.weight") != NULL) == !o.no_affine);
        CHECK((eqnn_parameter(c, "bn.bias") != NULL) == (!o.no_affine && !o.no_bias));
        CHECK((eqnn_parameter(c, "bn.running_var") != NULL) == !o.instance);
        /* one row by itself, centred, is 0: there the slope 1/sqrt(eps) is all there is */
        if (!o.instance || o.example) CHECK_DERIVATIVES_OF(batch_norm, &x, 1, &o, 2);
        if (bits % 5 == 0) CHECK_SYMMETRY(batch_norm, &x, 1, &o);
        while (test_context_count > 0) { /* 128 contexts are too many to keep */
            CHECK_OK(c);
            eqnn_free(test_contexts[--test_context_count]);
        }
    }
}

TEST(batch_norm_statistics)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *x = test_features(c, 50, "1x0e+1x1o"), *y;
    double mean = 0, var = 0, power = 0;
    x = eqnn_as(eqnn_shift(eqnn_scale(eqnn_as(x, NULL), 3), 1), eqnn_label_of(x));
    for (int i = 0; i < 50; i++) mean += eqnn_at(x, i, 0) / 50;
    for (int i = 0; i < 50; i++) {
        var += pow(eqnn_at(x, i, 0) - mean, 2) / 50;
        for (int m = 1; m < 4; m++) power += pow(eqnn_at(x, i, m), 2) / 150;
    }
    eqnn_training(c, 1);
    y = eqnn_irreps_batch_norm(x, "bn", NULL);
    for (int m = 1; m < 4; m++)
        CHECK_NEAR(eqnn_at(y, 7, m), eqnn_at(x, 7, m) / sqrt(power + 1e-5), 10 * eps());
    CHECK_NEAR(eqnn_at(y, 7, 0), (eqnn_at(x, 7, 0) - mean) / sqrt(var + 1e-5), 10 * eps());
    CHECK_NEAR(eqnn_at(eqnn_parameter(c, "bn.running_mean"), 0, 0), 0, 0);
    eqnn_commit(c);
    CHECK_NEAR(eqnn_at(eqnn_parameter(c, "bn.running_mean"), 0, 0), 0.1 * mean, eps());
    CHECK_NEAR(eqnn_at(eqnn_parameter(c, "bn.running_var"), 0, 0), 0.9 + 0.1 * var, eps());
    CHECK_NEAR(eqnn_at(eqnn_parameter(c, "bn.running_var"), 0, 1), 0.9 + 0.1 * power, eps());
    eqnn_training(c, 0);
    y = eqnn_irreps_batch_norm(x, "bn", NULL);
    CHECK_NEAR(eqnn_at(y, 7, 1), eqnn_at(x, 7, 1) / sqrt(0.9 + 0.1 * power + 1e-5), eps());
    eqnn_training(c, 1);
    CHECK(eqnn_rows(eqnn_irreps_batch_norm(eqnn_slice_rows(x, 0, 0), "bn", NULL)) == 0);
    y = eqnn_irreps_batch_norm(eqnn_as(eqnn_zeros(c, 3, 4), eqnn_label_of(x)), "bn", NULL);
    for (int k = 0; k < 4; k++) CHECK_NEAR(eqnn_at(y, 2, k), 0, 0);
}

/* Lists without 0e have weights and statistics of size 0, which are saved and loaded like
   others. */
TEST(batch_norm_without_scalars)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *x = test_features(c, 5, "2x1o+1x0o"), *y;
    char path[512];
    const char *folder = getenv("TMPDIR");
    snprintf(path, sizeof path, "%.400s/eqnn_layers_%d_%p.safetensors", folder ? folder : "/tmp",
             (int)sizeof(eqnn_real), (void *)&test_first);
    eqnn_training(c, 1);
    CHECK_DERIVATIVES_OF(batch_norm, &x, 1, NULL, 2);
    CHECK_SYMMETRY(batch_norm, &x, 1, NULL);
    eqnn_backward(eqnn_sum(eqnn_square_copies(eqnn_irreps_batch_norm(x, "bn", NULL))));
    eqnn_adam *adam = eqnn_adam_make(c, NULL);
    CHECK(eqnn_adam_step(adam));
    eqnn_training(c, 0);
    CHECK(eqnn_cols(eqnn_parameter(c, "bn.running_mean")) == 0);
    y = eqnn_irreps_batch_norm(x, "bn", NULL);
    CHECK(eqnn_save(c, path));
    eqnn_ctx *d = test_context();
    CHECK(eqnn_load(d, path, NULL));
    eqnn_tensor *other = eqnn_from(d, 5, 7, eqnn_data(x));
    other = eqnn_irreps_batch_norm(eqnn_as(other, eqnn_irreps_make(d, "2x1o+1x0o")), "bn", NULL);
    CHECK(eqnn_loaded(d));
    for (int k = 0; k < 7; k++) CHECK_NEAR(eqnn_at(other, 3, k), eqnn_at(y, 3, k), 0);
    remove(path);
}

TEST(batch_norm_examples)
{
    eqnn_ctx *c = test_context();
    eqnn_irreps_norm_opts o;
    const int of[5] = { 0, 0, 3, 3, 3 }; /* two examples have no rows */
    eqnn_tensor *x = test_features(c, 5, "1x1o"), *n = eqnn_square_copies(x), *y;
    memset(&o, 0, sizeof o);
    o.max = 1;
    o.example = eqnn_ints_make(c, 5, of, 4, 0);
    double a = fmax(eqnn_at(n, 0, 0), eqnn_at(n, 1, 0)), b = 0;
    for (int i = 2; i < 5; i++) b = fmax(b, eqnn_at(n, i, 0));
    eqnn_training(c, 1);
    y = eqnn_irreps_batch_norm(x, "bn", &o);
    CHECK_NEAR(eqnn_at(y, 4, 1), eqnn_at(x, 4, 1) / sqrt((a + b) / 6 + 1e-5), eps());
    o.instance = 1;
    y = eqnn_irreps_batch_norm(x, "bn", &o);
    CHECK_NEAR(eqnn_at(y, 4, 1), eqnn_at(x, 4, 1) / sqrt(b / 3 + 1e-5), eps());
    CHECK_NEAR(eqnn_at(y, 0, 1), eqnn_at(x, 0, 1) / sqrt(a / 3 + 1e-5), eps());
    eqnn_irreps_batch_norm(eqnn_slice_rows(x, 0, 4), "bn", &o);
    CHECK_ERROR(c, "4 rows and 5");
}

/* --- dropout --- */

static eqnn_tensor *dropout(eqnn_tensor *const *x, int n, void *user)
{
    (void)n;
    return eqnn_irreps_dropout(x[0], "drop", *(double *)user, NULL);
}

TEST(dropout_of_copies)
{
    eqnn_ctx *c = test_context();
    double p = 0.3, zero = 0;
    eqnn_tensor *x = test_features(c, 500, "2x1o+3x0e"), *y;
    CHECK(dropout(&x, 1, &p) == x); /* only when training */
    eqnn_training(c, 1);
    y = dropout(&x, 1, &p);
    for (int i = 0; i < 500; i++) {
        for (int u = 0; u < 2; u++) {
            int gone = eqnn_at(y, i, u) == 0;
            zero += gone / 1000.0;
            for (int m = 0; m < 3; m++)
                CHECK_NEAR(eqnn_at(y, i, 2 * m + u), gone ? 0 : eqnn_at(x, i, 2 * m + u) / 0.7,
                           eps());
        }
    }
    CHECK_NEAR(zero, p, 0.06);
    CHECK_SYMMETRY(dropout, &x, 1, &p);
    CHECK_DERIVATIVES_OF(dropout, &x, 1, &p, 1);
    p = 1;
    y = dropout(&x, 1, &p);
    for (int k = 0; k < 9; k++) CHECK_NEAR(eqnn_at(y, 3, k), 0, 0);
    CHECK(eqnn_irreps_dropout(x, "drop", 0, NULL) == x);
    y = eqnn_irreps_dropout(eqnn_as(eqnn_full(c, 6, 4, 1), eqnn_irreps_make(c, "4x0o")), "drop",
                            0.5, examples(c, 6, 2));
    for (int k = 0; k < 4; k++)
        CHECK_NEAR(eqnn_at(y, 0, k), eqnn_at(y, 2, k), 0); /* of one example */
    CHECK(eqnn_rows(eqnn_irreps_dropout(eqnn_slice_rows(x, 0, 0), "drop", 0.5, NULL)) == 0);
    eqnn_irreps_dropout(x, "drop", 0.5, examples(c, 6, 2));
    CHECK_ERROR(c, "500 rows and 6");
}

/* --- extracting --- */

static eqnn_tensor *extract(eqnn_tensor *const *x, int n, void *user)
{
    static const int blocks[4] = { 3, 2, 0, 3 };
    (void)n, (void)user;
    return eqnn_extract(x[0], blocks, 4);
}

TEST(extracting)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *x = test_features(c, 3, "2x1e+3x0e+0x2o+2x1o+1x1e"), *y = extract(&x, 1, NULL);
    const int far = 5;
    CHECK_TEXT(name_of(eqnn_label_of(y)), "2x1o+0x2o+2x1e+2x1o");
    CHECK_NEAR(eqnn_at(y, 2, 6 + 4), eqnn_at(x, 2, 4), 0);
    CHECK_DERIVATIVES_OF(extract, &x, 1, NULL, 1);
    CHECK_SYMMETRY(extract, &x, 1, NULL);
    y = eqnn_extract_irrep(x, 1, 1);
    CHECK_TEXT(name_of(eqnn_label_of(y)), "2x1e+1x1e");
    CHECK_NEAR(eqnn_at(y, 1, 8), eqnn_at(x, 1, 17), 0);
    CHECK(eqnn_cols(eqnn_extract_irrep(x, 4, 1)) == 0 &&
          eqnn_rows(eqnn_extract_irrep(x, 4, 1)) == 3);
    CHECK(eqnn_rows(eqnn_extract_irrep(eqnn_slice_rows(x, 0, 0), 1, 1)) == 0);
    eqnn_extract(x, &far, 1);
    CHECK_ERROR(c, "block 5");
}

TEST_MAIN
