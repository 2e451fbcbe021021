/* training.c - parameters, layers and optimizers */
#include "test.h"

static eqnn_ctx *context_with(eqnn_ctx *weights_of, int threads, uint64_t seed)
{
    eqnn_opts o = test_opts();
    o.weights_of = weights_of;
    if (threads) o.threads = threads;
    if (seed) o.seed = seed;
    eqnn_ctx *c = eqnn_make(&o);
    if (!c || test_context_count == 64) exit(1);
    return test_contexts[test_context_count++] = c;
}

static double entry(eqnn_ctx *c, const char *name, int i)
{
    const eqnn_real *x = eqnn_data(eqnn_parameter(c, name));
    return x ? (double)x[i] : (double)NAN;
}

/* ---- names ---------------------------------------------------------------------------------- */

static eqnn_tensor *two_layers(eqnn_tensor *x, const char *name)
{
    x = eqnn_enter(x, name);
    x = eqnn_linear(x, "first", 3, NULL);
    eqnn_linear_opts o = { .no_bias = 1 };
    return eqnn_leave(eqnn_linear(eqnn_tanh(x), "second", 2, &o));
}

TEST(names)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *x = test_normal(c, 4, 5), *a = two_layers(x, "net"), *b = two_layers(x, "net");
    CHECK(eqnn_parameter_count(c) == 3 && eqnn_parameter_size(c) == 15 + 3 + 6);
    CHECK_TEXT(eqnn_parameter_name(c, 0), "net.first.weight");
    CHECK_TEXT(eqnn_parameter_name(c, 1), "net.first.bias");
    CHECK_TEXT(eqnn_parameter_name(c, 2), "net.second.weight");
    CHECK(!eqnn_parameter_name(c, 3) && !eqnn_parameter_at(c, -1) &&
          !eqnn_parameter(c, "net.first"));
    CHECK(eqnn_parameter_at(c, 2) == eqnn_parameter(c, "net.second.weight"));
    CHECK_SAME(a, b, 0); /* a name called again shares its weights */
    two_layers(x, "");   /* and the empty name adds nothing */
    CHECK(eqnn_parameter(c, "first.weight") && eqnn_parameter(c, "second.weight"));
    CHECK(!two_layers(test_normal(c, 4, 6), "net"));
    CHECK_ERROR(
        c, "net.first.weight is a parameter of [3,5] and is asked for as a parameter of [3,6]");
    eqnn_reset(c);
    CHECK(!eqnn_param(c, "eqnn.tick", 1, 1, NULL));
    CHECK_ERROR(c, "reserved");
    CHECK(!eqnn_param(c, "\xff", 1, 1, NULL));
    CHECK_ERROR(c, "UTF-8");
    CHECK(!eqnn_linear(test_normal(c, 1, 1), NULL, 1, NULL));
    CHECK_ERROR(c, "no name");
    CHECK(!eqnn_param(c, "x", -1, 1, NULL));
    CHECK_ERROR(c, "[-1,1]");
    CHECK(!eqnn_buffer(c, "net.first.bias", 1, 3, NULL));
    CHECK_ERROR(c, "is a parameter of [1,3] and is asked for as a buffer");
}

TEST(deep_scopes)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *x = eqnn_full(c, 1, 1, 1);
    for (int i = 0; i < 32; i++) x = eqnn_enter(x, "a");
    CHECK(x && eqnn_param(c, "w", 1, 1, NULL));
    CHECK(!eqnn_enter(x, "a"));
    CHECK_ERROR(c, "32 scopes");
    x = eqnn_enter(eqnn_full(c, 1, 1, 1), "b"); /* an error has brought us back to the outside */
    CHECK(eqnn_param(c, "w", 1, 1, NULL) == eqnn_parameter(c, "b.w"));
    for (int i = 0; i < 40; i++) x = eqnn_leave(x); /* once too often does no harm */
    CHECK(eqnn_param(c, "w", 1, 1, NULL) == eqnn_parameter(c, "w"));
    char name[600];
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = 0;
    CHECK(!eqnn_enter(x, name));
    CHECK_ERROR(c, "characters");
}

TEST(names_close)
{
    eqnn_ctx *c = test_context();
    eqnn_adam *adam = eqnn_adam_make(c, NULL);
    eqnn_tensor *x = eqnn_full(c, 2, 3, 1);
    eqnn_backward(eqnn_sum(eqnn_linear(x, "a", 2, NULL)));
    CHECK(eqnn_adam_step(adam) && eqnn_adam_steps(adam) == 1);
    CHECK(!eqnn_linear(x, "typo", 2, NULL));
    CHECK_ERROR(c, "param: typo.weight is new after the first optimizer step");
    eqnn_open(c, "head.");
    double before = 0;
    for (int i = 0; i < 2; i++) {
        eqnn_tensor *y = eqnn_linear(eqnn_full(c, 2, 3, 1), "head", 2, NULL);
        if (i == 0) before = entry(c, "head.bias", 0);
        eqnn_backward(eqnn_sum(y));
        if (i == 0) CHECK(eqnn_adam_step(adam));
        eqnn_reset(c);
    }
    CHECK_NEAR(entry(c, "head.bias", 0), before - 1e-3,
               1e-6); /* a first step of Adam is the rate */
    CHECK(!eqnn_linear(eqnn_full(c, 1, 3, 1), "other", 2, NULL));
    CHECK_ERROR(c, "other.weight is new");
}

TEST(many_names)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *first = NULL;
    const eqnn_real *data = NULL;
    for (int i = 0; i < 2000; i++) {
        eqnn_tensor *w = eqnn_param(c, eqnn_format(c, "w%d", i), 1 + i % 7, 1 + i % 11, NULL);
        if (i == 0) { first = w; data = eqnn_data(w); }
    }
    CHECK_OK(c);
    CHECK(eqnn_parameter(c, "w0") == first && eqnn_data(first) == data); /* nothing moves */
    for (int i = 0; i < 2000; i++)
        if (eqnn_cols(eqnn_parameter(c, eqnn_format(c, "w%d", i))) != 1 + i % 11) CHECK(0);
}

/* ---- first numbers -------------------------------------------------------------------------- */

static void moments(const eqnn_tensor *x, double *mean, double *std, double *most)
{
    int n = eqnn_rows(x) * eqnn_cols(x);
    double s = 0, q = 0;
    *most = 0;
    for (int i = 0; i < n; i++) {
        double v = (double)eqnn_data(x)[i];
        s += v;
        q += v * v;
        *most = fmax(*most, fabs(v));
    }
    *mean = s / n;
    *std = sqrt(q / n - *mean * *mean);
}

TEST(initialisers)
{
    eqnn_ctx *c = test_context();
    double in = 80, out = 120, mean, std, most, root3 = sqrt(3.0);
    const struct { eqnn_init init; double std, bound; } t[] = {
        { { .kind = EQNN_INIT_NORMAL }, 1, 6 },
        { { .kind = EQNN_INIT_NORMAL, .scale = 0.1 }, 0.1, 0.6 },
        { { .kind = EQNN_INIT_UNIFORM, .scale = 2 }, 2 / root3, 2 },
        { { .kind = EQNN_INIT_TORCH }, 1 / sqrt(in) / root3, 1 / sqrt(in) },
        { { .kind = EQNN_INIT_TORCH, .fan_in = 16 }, 0.25 / root3, 0.25 },
        { { .kind = EQNN_INIT_GLOROT_UNIFORM }, sqrt(2 / (in + out)), sqrt(6 / (in + out)) },
        { { .kind = EQNN_INIT_GLOROT_NORMAL }, sqrt(2 / (in + out)), 6 * sqrt(2 / (in + out)) },
        { { .kind = EQNN_INIT_HE_UNIFORM }, sqrt(2 / in), sqrt(6 / in) },
        { { .kind = EQNN_INIT_HE_NORMAL }, sqrt(2 / in), 6 * sqrt(2 / in) },
        { { .kind = EQNN_INIT_LECUN_NORMAL }, sqrt(1 / in), 2 * sqrt(1 / in) / 0.8796256610 },
        { { .kind = EQNN_INIT_ORTHOGONAL }, 1 / sqrt(out), 1 },
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        moments(eqnn_param(c, eqnn_format(c, "w%d", (int)i), (int)out, (int)in, &t[i].init), &mean,
                &std, &most);
        CHECK_NEAR(mean / t[i].std, 0, 0.05);
        CHECK_NEAR(std / t[i].std, 1, 0.03);
        CHECK(most <= t[i].bound * 1.000001);
    }
    eqnn_init ones = { .kind = EQNN_INIT_ONES },
              orthogonal = { .kind = EQNN_INIT_ORTHOGONAL, .scale = 2 };
    CHECK_NEAR(eqnn_at(eqnn_param(c, "ones", 3, 2, &ones), 2, 1), 1, 0);
    CHECK_NEAR(eqnn_at(eqnn_buffer(c, "zeros", 3, 2, NULL), 2, 1), 0, 0);
    eqnn_tensor *q = eqnn_param(c, "q", 7, 4, &orthogonal);
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++) {
            double dot = 0;
            for (int k = 0; k < 7; k++) dot += eqnn_at(q, k, i) * eqnn_at(q, k, j);
            CHECK_NEAR(dot, i == j ? 4 : 0, test_eps(1e-13, 1e-6));
        }
    eqnn_param(c, "empty", 0, 5, &orthogonal);
}

/* The numbers depend on the seed and the full name, not on what was made before nor on the tick. */
TEST(initial_numbers_depend_on_names)
{
    eqnn_ctx *a = test_context(), *b = test_context(), *d = context_with(NULL, 0, 77);
    two_layers(eqnn_full(a, 1, 5, 1), "one");
    two_layers(eqnn_full(a, 1, 5, 1), "two");
    eqnn_reset(b);
    two_layers(eqnn_full(b, 1, 5, 1), "two");
    two_layers(eqnn_full(d, 1, 5, 1), "two");
    CHECK_SAME(eqnn_parameter(a, "two.first.weight"), eqnn_parameter(b, "two.first.weight"), 0);
    CHECK(test_difference(eqnn_parameter(a, "two.first.weight"),
                          eqnn_parameter(a, "one.first.weight")) > 0.01);
    CHECK(test_difference(eqnn_parameter(a, "two.first.weight"),
                          eqnn_parameter(d, "two.first.weight")) > 0.01);
}

/* ---- layers --------------------------------------------------------------------------------- */

TEST(linear_layer)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *x = test_normal(c, 4, 5), *y = eqnn_linear(x, "l", 3, NULL);
    eqnn_tensor *W = eqnn_parameter(c, "l.weight"), *b = eqnn_parameter(c, "l.bias");
    CHECK(eqnn_rows(W) == 3 && eqnn_cols(W) == 5 && eqnn_rows(b) == 1 && eqnn_cols(b) == 3);
    for (int r = 0; r < 4; r++)
        for (int k = 0; k < 3; k++) {
            double sum = eqnn_at(b, 0, k);
            for (int i = 0; i < 5; i++) sum += eqnn_at(x, r, i) * eqnn_at(W, k, i);
            CHECK_NEAR(eqnn_at(y, r, k), sum, test_eps(1e-14, 1e-6));
        }
    eqnn_backward(eqnn_sum(eqnn_square(y)));
    for (int k = 0; k < 3; k++) {
        double sum = 0;
        for (int r = 0; r < 4; r++) sum += 2 * eqnn_at(y, r, k);
        CHECK_NEAR(eqnn_at(eqnn_gradient(b), 0, k), sum, test_eps(1e-13, 1e-5));
    }
    CHECK(eqnn_rows(eqnn_linear(eqnn_zeros(c, 0, 5), "l", 3, NULL)) == 0);
    eqnn_tensor *v = eqnn_as(test_normal(c, 2, 6), eqnn_irreps_make(c, "2x1o"));
    CHECK(!eqnn_linear(v, "l2", 3, NULL));
    CHECK_ERROR(
        c,
        "linear in l2: 2x1o is not invariant; it would break the symmetry; use eqnn_irreps_linear");
    eqnn_tensor *s = eqnn_as(test_normal(c, 2, 6), eqnn_irreps_make(c, "6x0e"));
    CHECK(eqnn_linear(s, "l3", 3, NULL) && !eqnn_label_of(eqnn_linear(s, "l3", 3, NULL)));
}

TEST(linear_options)
{
    eqnn_ctx *c = test_context();
    eqnn_linear_opts o = { .weight = { .kind = EQNN_INIT_ONES, .scale = 2 },
                           .bias = { .kind = EQNN_INIT_ONES, .scale = 3 } };
    eqnn_tensor *x = test_normal(c, 4, 5);
    eqnn_tensor *sums = eqnn_matmul(x, eqnn_full(c, 5, 2, 2));
    CHECK_SAME(eqnn_linear(x, "l", 2, &o), eqnn_shift(sums, 3), test_eps(1e-14, 1e-6));
    o.no_bias = 1;
    eqnn_mlp_opts m = { .linear = 1, .layer = o };
    CHECK_SAME(eqnn_mlp(x, "m", "2,1", &m), eqnn_scale(eqnn_sum_cols(sums), 2),
               test_eps(1e-14, 1e-6));
    CHECK(eqnn_parameter_count(c) == 2 + 2);
    int species[3] = { 0, 1, 0 };
    CHECK_SAME(eqnn_embedding(c, eqnn_ints_make(c, 3, species, 2, 0), "e", 2, 4, &o.weight),
               eqnn_full(c, 3, 4, 2), 0);
}

/* Norms without weight and bias have no parameters. */
TEST(norms_without_weights)
{
    eqnn_ctx *c = test_context();
    eqnn_norm_opts o = { .no_affine = 1 };
    eqnn_tensor *x = test_normal(c, 4, 5), *v = test_features(c, 4, "3x0e+3x1o");
    CHECK(eqnn_layer_norm(x, "layer", &o) && eqnn_batch_norm(x, "batch", &o));
    CHECK(eqnn_irreps_layer_norm(v, "irreps", &o) && eqnn_separable_layer_norm(v, "apart", &o));
    CHECK(eqnn_parameter_count(c) == 0);
}

static eqnn_tensor *a_mlp(eqnn_tensor *x) { return eqnn_mlp(x, "m", "4, 3,2", NULL); }

TEST(mlp)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *x = test_normal(c, 3, 5), *y = a_mlp(x);
    eqnn_tensor *h = eqnn_silu(eqnn_linear(x, "m.0", 4, NULL));
    h = eqnn_silu(eqnn_linear(h, "m.1", 3, NULL));
    CHECK_SAME(y, eqnn_linear(h, "m.2", 2, NULL), 0);
    CHECK(eqnn_parameter_count(c) == 6);
    CHECK_DERIVATIVES(a_mlp, x, 2);
    eqnn_mlp_opts o = { .act = EQNN_TANH, .act_last = 1 };
    CHECK_SAME(eqnn_mlp(x, "t", "2", &o), eqnn_tanh(eqnn_linear(x, "t.0", 2, NULL)), 0);
    const char *wrong[] = { "4,,2", "4,2,", "4 2", "four", "4,-2", "0", "99999999999" };
    for (int i = 0; i < 7; i++) {
        CHECK(!eqnn_mlp(eqnn_full(c, 1, 1, 1), eqnn_format(c, "w%d", i), wrong[i], NULL));
        CHECK_ERROR(c, "is no list of widths");
    }
}

TEST(embedding)
{
    eqnn_ctx *c = test_context();
    const int species[5] = { 2, 0, 2, 1, 2 };
    eqnn_ints *index = eqnn_ints_make(c, 5, species, 3, 0);
    eqnn_tensor *y = eqnn_embedding(c, index, "species", 3, 4, NULL),
                *w = eqnn_parameter(c, "species.weight");
    CHECK(eqnn_rows(y) == 5 && eqnn_cols(y) == 4);
    CHECK_NEAR(eqnn_at(y, 3, 2), eqnn_at(w, 1, 2), 0);
    eqnn_backward(eqnn_sum(y));
    CHECK_NEAR(eqnn_at(eqnn_gradient(w), 2, 1), 3, 0);
    CHECK(!eqnn_embedding(c, index, "other", 2, 4, NULL));
    CHECK_ERROR(c, "the index goes to 2, there are 2 entries");
}

static eqnn_tensor *normed(eqnn_tensor *x) { return eqnn_layer_norm(x, "ln", NULL); }
static eqnn_tensor *batched(eqnn_tensor *x) { return eqnn_batch_norm(x, "bn", NULL); }

TEST(layer_norm)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *x = test_normal(c, 3, 6), *y = normed(x);
    for (int r = 0; r < 3; r++) {
        double mean = 0, var = 0;
        for (int k = 0; k < 6; k++) mean += eqnn_at(x, r, k) / 6;
        for (int k = 0; k < 6; k++) var += pow(eqnn_at(x, r, k) - mean, 2) / 6;
        for (int k = 0; k < 6; k++)
            CHECK_NEAR(eqnn_at(y, r, k), (eqnn_at(x, r, k) - mean) / sqrt(var + 1e-5),
                       test_eps(1e-13, 1e-5));
    }
    CHECK(eqnn_parameter(c, "ln.weight") && eqnn_parameter(c, "ln.bias"));
    CHECK_DERIVATIVES(normed, x, 2);
}

TEST(batch_norm)
{
    eqnn_ctx *c = test_context();
    double mean[3] = { 0, 0, 0 }, var[3] = { 0, 0, 0 };
    eqnn_tensor *x = test_normal(c, 5, 3);
    for (int k = 0; k < 3; k++) {
        for (int r = 0; r < 5; r++) mean[k] += eqnn_at(x, r, k) / 5;
        for (int r = 0; r < 5; r++) var[k] += pow(eqnn_at(x, r, k) - mean[k], 2) / 5;
    }
    eqnn_tensor *before = batched(x); /* running mean 0, variance 1 */
    CHECK_SAME(before, eqnn_scale(x, 1 / sqrt(1 + 1e-5)), test_eps(1e-14, 1e-6));
    eqnn_training(c, 1);
    CHECK_DERIVATIVES(batched, x, 2);
    eqnn_mark mark = eqnn_mark_make(c);
    batched(x);
    eqnn_rewind(mark, NULL); /* what was filed is dropped */
    eqnn_reset(c);
    x = test_normal(c, 5, 3);
    for (int k = 0; k < 3; k++) {
        mean[k] = var[k] = 0;
        for (int r = 0; r < 5; r++) mean[k] += eqnn_at(x, r, k) / 5;
        for (int r = 0; r < 5; r++) var[k] += pow(eqnn_at(x, r, k) - mean[k], 2) / 5;
    }
    eqnn_tensor *y = batched(x);
    for (int r = 0; r < 5; r++)
        CHECK_NEAR(eqnn_at(y, r, 1), (eqnn_at(x, r, 1) - mean[1]) / sqrt(var[1] + 1e-5),
                   test_eps(1e-13, 1e-5));
    CHECK_NEAR(entry(c, "bn.running_mean", 1), 0, 0); /* not yet */
    eqnn_commit(c);
    for (int k = 0; k < 3; k++) {
        CHECK_NEAR(entry(c, "bn.running_mean", k), 0.1 * mean[k], test_eps(1e-14, 1e-6));
        CHECK_NEAR(entry(c, "bn.running_var", k), 0.9 + 0.1 * var[k] * 5 / 4,
                   test_eps(1e-14, 1e-6));
    }
    eqnn_commit(c); /* once only */
    CHECK_NEAR(entry(c, "bn.running_mean", 0), 0.1 * mean[0], test_eps(1e-14, 1e-6));
    CHECK(batched(eqnn_full(c, 1, 3, 2)) && eqnn_rows(batched(eqnn_zeros(c, 0, 3))) == 0);
    CHECK(eqnn_parameter_count(c) == 2); /* buffers are not parameters */
}

/* The same of small operations, with the layer's weights where it has them. */
static eqnn_tensor *batched_plainly(eqnn_ctx *ctx, eqnn_tensor *x, const eqnn_norm_opts *o)
{
    eqnn_tensor *w = eqnn_parameter(ctx, "bn.weight"), *b = eqnn_parameter(ctx, "bn.bias");
    eqnn_tensor *c = eqnn_sub(x, eqnn_mean_rows(x)), *var = eqnn_mean_rows(eqnn_square(c));
    eqnn_tensor *eps = eqnn_full(ctx, 1, 1, 1e-5);
    var = o->clamp ? eqnn_max(var, eps) : eqnn_add(var, eps);
    c = eqnn_mul(c, eqnn_rsqrt(var));
    return o->no_affine ? c : eqnn_add(eqnn_mul(c, w), b);
}

/* First and second slopes by x and by both weights; a column that hardly varies is one whose
   variance is clamped. */
TEST(batch_norm_slopes)
{
    for (int way = 0; way < 4; way++) {
        eqnn_ctx *c = test_context();
        eqnn_norm_opts o;
        double weight[5] = { 1, -2, 0.5, 3, 0.1 }, bias[5] = { 1, 2, 3, 4, 5 };
        memset(&o, 0, sizeof o);
        o.no_affine = way & 1, o.clamp = way >> 1;
        eqnn_training(c, 1);
        eqnn_tensor *x = test_normal(c, 70, 5), *g = eqnn_normal(c, "g", 70, 5), *y[2], *d[2][6];
        x = eqnn_mul(x, eqnn_from_double(c, 1, 5, (double[]){ 1, 1, 2, 1e-3, 1 }));
        y[0] = eqnn_batch_norm(x, "bn", &o);
        if (!o.no_affine) {
            eqnn_set(eqnn_parameter(c, "bn.weight"), weight);
            eqnn_set(eqnn_parameter(c, "bn.bias"), bias);
        }
        for (int plain = 0; plain < 2; plain++) {
            eqnn_tensor *in[3] = { x, eqnn_parameter(c, "bn.weight"),
                                   eqnn_parameter(c, "bn.bias") };
            int n = o.no_affine ? 1 : 3;
            y[plain] = plain ? batched_plainly(c, x, &o) : eqnn_batch_norm(x, "bn", &o);
            eqnn_grads(eqnn_sum(eqnn_mul(g, eqnn_square(y[plain]))), in, n, d[plain]);
            eqnn_tensor *sum = eqnn_sum(eqnn_mul(g, eqnn_square(d[plain][0])));
            for (int i = 1; i < n; i++)
                sum = eqnn_add(sum, eqnn_sum(eqnn_square(d[plain][i])));
            eqnn_grads(sum, in, n, d[plain] + 3);
        }
        CHECK_SAME(y[0], y[1], test_eps(1e-13, 1e-5));
        for (int i = 0; i < 6; i++) {
            if (o.no_affine && i % 3) continue;
            double size = eqnn_value(eqnn_sum(eqnn_square(d[1][i])));
            eqnn_tensor *a = eqnn_scale(d[0][i], 1 / sqrt(size));
            CHECK_SAME(a, eqnn_scale(d[1][i], 1 / sqrt(size)), test_eps(1e-11, 2e-4));
        }
    }
}

static eqnn_tensor *batched_block(eqnn_tensor *const *x, int n, void *user)
{
    (void)n, (void)user;
    return eqnn_silu(batched(x[0]));
}

/* A block that is computed again, once for its gradient and once for that gradient's own, has seen
   one batch. */
TEST(batch_norm_recomputed)
{
    double mean[4], user = 0;
    for (int way = 0; way < 4; way++) {
        eqnn_ctx *c = test_context();
        eqnn_training(c, 1);
        eqnn_tensor *x = eqnn_shift(eqnn_normal(c, "x", 5, 3), 1);
        eqnn_tensor *y = way & 1 ? eqnn_checkpoint(batched_block, &x, 1, &user, sizeof user)
                                 : batched_block(&x, 1, &user);
        eqnn_tensor *loss = eqnn_sum(eqnn_square(y));
        if (way & 2) loss = eqnn_add(loss, eqnn_sum(eqnn_square(eqnn_grad(eqnn_sum(y), x))));
        eqnn_backward(loss);
        eqnn_commit(c);
        mean[way] = entry(c, "bn.running_mean", 1);
        CHECK(mean[way] != 0);
        CHECK_NEAR(mean[way], mean[0], 0);
    }
}

/* ---- optimizers against the formulas -----------------------------------------------------------
   */

/* loss = sum of weight (w - target)^2 / 2, so the gradient is weight (w - target) */
static void pull(eqnn_ctx *c, const char *name, double weight, double target, int n)
{
    eqnn_tensor *w = eqnn_param(c, name, 1, n, NULL);
    eqnn_backward(eqnn_scale(eqnn_sum(eqnn_square(eqnn_shift(w, -target))), weight / 2));
}

/* The pull is weak after a while, so that AMSGrad's largest squares are those of before. */
static void check_adam(int amsgrad)
{
    eqnn_ctx *c = test_context();
    eqnn_adam_opts o = {
        .rate = 0.02, .beta1 = 0.8, .beta2 = 0.95, .eps = 1e-2, .decay = 0.1, .l2 = 0.05,
        .clip = 8, .amsgrad = amsgrad
    };
    eqnn_adam *adam = eqnn_adam_make(c, &o);
    eqnn_tensor *start = eqnn_param(c, "w", 1, 37, NULL);
    double w[37], m[37] = { 0 }, v[37] = { 0 }, most[37] = { 0 };
    for (int i = 0; i < 37; i++) w[i] = eqnn_at(start, 0, i);
    for (int t = 1; t <= 20; t++) {
        if (t == 11) eqnn_adam_rate(adam, o.rate = 0.005);
        double norm = 0, weight = t < 8 ? 3 : 0.3;
        pull(c, "w", weight, 0.5, 37);
        for (int i = 0; i < 37; i++) norm += pow(weight * (w[i] - 0.5), 2);
        CHECK(eqnn_adam_step(adam));
        eqnn_reset(c);
        for (int i = 0; i < 37; i++) {
            double clip = fmin(1, o.clip / (sqrt(norm) + 1e-6));
            double g = weight * (w[i] - 0.5) * clip + o.l2 * w[i];
            w[i] -= o.rate * o.decay * w[i];
            m[i] = o.beta1 * m[i] + (1 - o.beta1) * g;
            v[i] = o.beta2 * v[i] + (1 - o.beta2) * g * g;
            most[i] = amsgrad ? fmax(most[i], v[i]) : v[i];
            w[i] -= o.rate * m[i] / (1 - pow(o.beta1, t)) /
                    (sqrt(most[i] / (1 - pow(o.beta2, t))) + o.eps);
        }
    }
    for (int i = 0; i < 37; i++) CHECK_NEAR(entry(c, "w", i), w[i], test_eps(1e-13, 1e-5));
    CHECK(eqnn_adam_steps(adam) == 20);
    o.beta1 = 1.5;
    CHECK(!eqnn_adam_make(c, &o));
    CHECK_ERROR(c, "out of range");
}

TEST(adam_formula) { check_adam(0); }
TEST(amsgrad_formula) { check_adam(1); }

/* An Adam that replaces another starts anew, with its largest squares too. */
TEST(amsgrad_replaced)
{
    double last[2];
    for (int k = 0; k < 2; k++) {
        eqnn_ctx *c = test_context();
        eqnn_adam_opts o = { .rate = 0.1, .amsgrad = 1 };
        eqnn_adam *adam = eqnn_adam_make(c, &o);
        const double zero[3] = { 0 };
        eqnn_set(eqnn_param(c, "w", 1, 3, NULL), zero);
        pull(c, "w", 100, 1, 3);
        if (k == 0) CHECK(eqnn_adam_step(adam)), adam = eqnn_adam_make(c, &o);
        eqnn_zero_gradients(c);
        eqnn_set(eqnn_parameter(c, "w"), zero);
        for (int t = 0; t < 4; t++) {
            pull(c, "w", t < 2 ? 1 : 0.1, 1, 3);
            CHECK(eqnn_adam_step(adam));
        }
        last[k] = entry(c, "w", 1);
    }
    CHECK_NEAR(last[0], last[1], 0);
}

TEST(sgd_formula)
{
    for (int kind = 0; kind < 3; kind++) { /* plain, momentum, Nesterov */
        eqnn_ctx *c = test_context();
        eqnn_sgd_opts o = {
            .rate = 0.05, .momentum = kind ? 0.9 : 0, .nesterov = kind == 2, .l2 = 0.01, .clip = 2
        };
        eqnn_sgd *sgd = eqnn_sgd_make(c, &o);
        eqnn_tensor *start = eqnn_param(c, "w", 1, 5, NULL);
        double w[5], v[5] = { 0 };
        for (int i = 0; i < 5; i++) w[i] = eqnn_at(start, 0, i);
        for (int t = 0; t < 15; t++) {
            double norm = 0;
            pull(c, "w", 4, 1, 5);
            for (int i = 0; i < 5; i++) norm += pow(4 * (w[i] - 1), 2);
            norm = sqrt(norm);
            CHECK_NEAR(eqnn_gradient_norm(c), norm, test_eps(1e-13, 1e-5));
            CHECK(eqnn_sgd_step(sgd));
            CHECK_NEAR(eqnn_gradient_norm(c), 0, 0); /* zeroed */
            eqnn_reset(c);
            for (int i = 0; i < 5; i++) {
                double g = 4 * (w[i] - 1) * fmin(1, o.clip / (norm + 1e-6)) + o.l2 * w[i];
                v[i] = o.momentum * v[i] + g;
                w[i] -= o.rate * (o.nesterov ? g + o.momentum * v[i] : o.momentum > 0 ? v[i] : g);
            }
        }
        for (int i = 0; i < 5; i++) CHECK_NEAR(entry(c, "w", i), w[i], test_eps(1e-13, 1e-5));
        CHECK(eqnn_sgd_steps(sgd) == 15);
    }
}

/* Decay by name: of l2 in the gradient, and of AdamW, which shrinks weights without a gradient. */
TEST(decay_by_name)
{
    for (int k = 0; k < 2; k++) {
        eqnn_ctx *c = test_context();
        const char *names[3] = { "a.bias", "a.weight", "b.weight" };
        const double factor[3] = { 0, 1, 0.5 };
        eqnn_init ones = { .kind = EQNN_INIT_ONES };
        CHECK(eqnn_decay_scale(c, "*bias", 0) == 0); /* holds for what comes later */
        for (int i = 0; i < 3; i++) eqnn_param(c, names[i], 1, 1, &ones);
        CHECK(eqnn_decay_scale(c, "b.*", 0.5) == 1);
        for (int i = 0; i < 3; i++)
            eqnn_backward(eqnn_scale(eqnn_sum(eqnn_param(c, names[i], 1, 1, NULL)), 0));
        eqnn_adam_opts adam = { .rate = 0.5, .decay = 0.2 };
        if (k) CHECK(eqnn_adam_step(eqnn_adam_make(c, &adam)));
        else CHECK(eqnn_sgd_step(eqnn_sgd_make(c, &(eqnn_sgd_opts){ .rate = .5, .l2 = .2 })));
        for (int i = 0; i < 3; i++) CHECK_NEAR(entry(c, names[i], 0), 1 - .1 * factor[i], 1e-6);
        CHECK(eqnn_decay_scale(c, "*", -1) == 0);
        CHECK_ERROR(c, "decay_scale: \"*\" times -1: needs");
    }
}

TEST(freeze_and_rates)
{
    eqnn_ctx *c = test_context();
    eqnn_sgd *sgd = eqnn_sgd_make(c, NULL); /* rate 0.01 */
    CHECK(eqnn_freeze(c, "enc*.weight", 1) == 0); /* holds for what comes later */
    CHECK(eqnn_rate_scale(c, "*.slow", 0.1) == 0);
    const char *names[4] = { "encoder.weight", "encoder.slow", "enc", "head.weight" };
    double before[4];
    for (int i = 0; i < 4; i++) before[i] = eqnn_at(eqnn_param(c, names[i], 1, 1, NULL), 0, 0);
    for (int i = 0; i < 4; i++) {
        pull(c, names[i], 1, before[i] - 1, 1); /* gradient 1 */
        CHECK_NEAR(eqnn_value(eqnn_gradient(eqnn_parameter(c, names[i]))), i > 0, 1e-6);
    }
    CHECK_NEAR(eqnn_gradient_norm(c), sqrt(3.0), 1e-6);
    CHECK(eqnn_sgd_step(sgd));
    CHECK_NEAR(entry(c, names[0], 0), before[0], 0);
    CHECK_NEAR(entry(c, names[1], 0), before[1] - 0.001, 1e-6);
    CHECK_NEAR(entry(c, names[2], 0), before[2] - 0.01, 1e-6);
    CHECK_NEAR(entry(c, names[3], 0), before[3] - 0.01, 1e-6);
    CHECK(eqnn_freeze(c, "*", 1) == 4 && eqnn_freeze(c, "enc*er.*", 0) == 2 &&
          eqnn_freeze(c, "nothing", 1) == 0);
    eqnn_reset(c);
    pull(c, "encoder.weight", 1, before[0] - 1, 1);
    pull(c, "enc", 1, 9, 1);
    CHECK_NEAR(eqnn_gradient_norm(c), 1, 1e-6);
    CHECK(eqnn_sgd_step(sgd));
    CHECK_NEAR(entry(c, "encoder.weight", 0), before[0] - 0.01, 1e-6);
    CHECK_NEAR(entry(c, "enc", 0), before[2] - 0.01, 1e-6);
}

/* ---- the checker of gradients ---- */

static eqnn_tensor *half_value(eqnn_tensor *const *x, int n, void *user)
{
    (void)n, (void)user;
    return eqnn_scale(x[0], 0.5);
}

/* user 0: right; 1: a wrong factor; 2: the first column is forgotten; 3: not a number */
static int half_rule(eqnn_tensor *const *x, int n, eqnn_tensor *y, eqnn_tensor *g, const int *want,
                     eqnn_tensor **dx, void *user)
{
    const double mask[3] = { 0, 0.5, 0.5 };
    int way = *(const int *)user;
    (void)x, (void)n, (void)y;
    if (want[0])
        dx[0] = way == 2 ? eqnn_mul(g, eqnn_from_double(eqnn_context(g), 1, 3, mask))
                         : eqnn_scale(g, way == 3 ? (double)NAN : way ? 0.4 : 0.5);
    return 1;
}

/* Energies with forces and batch statistics; what lies before the custom operation has the slopes
   that its rule gives. */
static eqnn_tensor *with_half(eqnn_tensor *const *x, int n, void *user)
{
    const eqnn_custom_op op = { "half", half_value, half_rule };
    (void)n;
    eqnn_tensor *y = eqnn_linear(x[0], "first", 3, NULL);
    y = eqnn_tanh(eqnn_custom(&op, &y, 1, user, sizeof(int)));
    y = batched(eqnn_linear(y, "second", 4, NULL));
    eqnn_tensor *E = eqnn_linear(eqnn_silu(y), "third", 1, NULL);
    return eqnn_add(eqnn_mean(eqnn_square(E)),
                    eqnn_mean(eqnn_square(eqnn_grad(eqnn_sum(E), x[0]))));
}

TEST(checked_gradients)
{
    for (int way = 0; way < 4; way++) {
        eqnn_ctx *c = test_context();
        const char *name = NULL;
        eqnn_training(c, 1);
        eqnn_tensor *x = eqnn_mul(eqnn_normal(c, "x", 7, 5), eqnn_param(c, "x", 1, 5, NULL));
        with_half(&x, 1, &way);
        eqnn_backward(with_half(&x, 1, &way)); /* these are not what is checked */
        double mean = entry(c, "bn.running_mean", 0);
        size_t mark = eqnn_memory_use(c).step;
        uint64_t before = test_hash(c);
        double error = eqnn_check_gradients(with_half, &x, 1, &way, 0, &name);
        test_note("gradients of weights, rule %d: %.2e, %s", way, error, name ? name : "-");
        if (way == 0) CHECK_NEAR(error, 0, test_eps(1e-6, 3e-2));
        if (way == 1) CHECK(error > 0.1 && error < 1);
        if (way == 2) CHECK(error > 0.03);
        if (way == 3) CHECK(isnan(error));
        CHECK(way == 3 ? !name : name && (way == 0 || !strncmp(name, "first.", 6)));
        CHECK(before == test_hash(c) && eqnn_memory_use(c).step == mark);
        CHECK_NEAR(eqnn_gradient_norm(c), 0, 0);
        eqnn_commit(c);
        CHECK(way || entry(c, "bn.running_mean", 0) != mean); /* filed before, and still there */
        eqnn_freeze(c, "first.*", 1);
        error = eqnn_check_gradients(with_half, &x, 1, &way, 0, NULL);
        if (way < 3) CHECK_NEAR(error, 0, test_eps(1e-6, 3e-2)); /* of the others all are right */
    }
}

/* Of a weight of many numbers and of one; with two x[] of the inputs alone. */
static eqnn_tensor *wide_half(eqnn_tensor *const *x, int n, void *user)
{
    const eqnn_custom_op op = { "half", half_value, half_rule };
    eqnn_ctx *c = eqnn_context(x[0]);
    eqnn_tensor *y = n > 1 ? x[0] : eqnn_matmul(x[0], eqnn_param(c, "wide", 5, 300, NULL));
    eqnn_tensor *shift = n > 1 ? x[1] : eqnn_param(c, "shift", 1, 1, NULL);
    y = eqnn_custom(&op, &y, 1, user, sizeof(int));
    return eqnn_mean(eqnn_square(eqnn_add(y, shift)));
}

/* A wrong factor is seen however many numbers a weight has, and what is no number is not covered
   by what comes after it. */
TEST(checked_gradients_of_many)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *x[2] = { test_normal(c, 7, 5), test_normal(c, 1, 5) };
    const char *name = NULL;
    int way = 1;
    double error = eqnn_check_gradients(wide_half, x, 1, &way, 0, &name);
    test_note("a wrong factor of %d numbers: %.2e", 1500, error);
    CHECK(error > 0.1 && error < 0.5);
    CHECK_TEXT(name, "wide");
    way = 3;
    CHECK(isnan(eqnn_check_gradients(wide_half, x, 1, &way, 0, &name)));
    CHECK_TEXT(name, "wide");
    CHECK(isnan(eqnn_check_derivatives(wide_half, x, 2, &way, 1, 0)));
    way = 0;
    CHECK_NEAR(eqnn_check_gradients(wide_half, x, 1, &way, 0, NULL), 0, test_eps(1e-6, 3e-2));
    CHECK_DERIVATIVES_OF(wide_half, x, 2, &way, 1);
}

static eqnn_tensor *no_weights(eqnn_tensor *const *x, int n, void *user)
{
    (void)n, (void)user;
    return eqnn_square(x[0]);
}

TEST(checked_gradients_refuse)
{
    eqnn_ctx *c = test_context(), *worker = context_with(c, 1, 0);
    int way = 0;
    eqnn_tensor *x = test_normal(c, 4, 5), *other = test_normal(worker, 4, 5);
    CHECK(isnan(eqnn_check_gradients(no_weights, NULL, 1, NULL, 0, NULL)));
    CHECK(isnan(eqnn_check_gradients(no_weights, &x, 0, NULL, 0, NULL)));
    CHECK(isnan(eqnn_check_gradients(NULL, &x, 1, NULL, 0, NULL)));
    CHECK_ERROR(c, "check_gradients: the function is missing");
    CHECK(isnan(eqnn_check_gradients(no_weights, &x, 1, NULL, 0, NULL)));
    CHECK_ERROR(c, "check_gradients");
    with_half(&x, 1, &way);
    CHECK(isnan(eqnn_check_gradients(with_half, &other, 1, &way, 0, NULL)));
    CHECK_ERROR(worker, "check_gradients: a worker only reads the weights");
    eqnn_freeze(c, "*", 1);
    CHECK(isnan(eqnn_check_gradients(with_half, &x, 1, &way, 0, NULL)));
    CHECK_ERROR(c, "check_gradients");
}

TEST(not_finite)
{
    eqnn_ctx *c = test_context();
    eqnn_adam *adam = eqnn_adam_make(c, NULL);
    pull(c, "a", 1, 0, 3);
    pull(c, "b", (double)INFINITY, 0, 3);
    double a = entry(c, "a", 0);
    CHECK(!eqnn_adam_step(adam));
    CHECK_ERROR(c, "adam: step 0: the gradient of b is not finite; nothing was updated");
    CHECK_NEAR(entry(c, "a", 0), a, 0);
    eqnn_reset(c);
    pull(c, "a", 1, 0, 3);
    CHECK(eqnn_adam_step(adam) && eqnn_adam_steps(adam) == 1);
    CHECK(fabs(entry(c, "a", 0) - a) > 5e-4);
    eqnn_fail(c, "mine");
    CHECK(!eqnn_adam_step(adam) && eqnn_adam_steps(adam) == 1);
    CHECK_ERROR(c, "mine");
    pull(c, "a", 1, 0, 3);
    CHECK(eqnn_gradient_norm(c) > 0);
    eqnn_fail(c, "mine again");
    CHECK(!eqnn_adam_step(adam));
    CHECK_ERROR(c, "mine again");
    CHECK_NEAR(eqnn_gradient_norm(c), 0, 0); /* half a step's gradients are dropped */
    CHECK(!eqnn_adam_make(c, &(eqnn_adam_opts){ .rate = NAN }));
    CHECK_ERROR(c, "rate nan");
}

TEST(average)
{
    eqnn_ctx *c = test_context();
    eqnn_sgd *sgd = eqnn_sgd_make(c, &(eqnn_sgd_opts){ .rate = 0.1, .average = 0.75 });
    CHECK(!eqnn_use_average(c, 1));
    CHECK_ERROR(c, "there is no average");
    double w = eqnn_at(eqnn_param(c, "w", 1, 2, NULL), 0, 1), average = w;
    for (int i = 0; i < 5; i++) {
        pull(c, "w", 1, 3, 2);
        CHECK(eqnn_sgd_step(sgd));
        eqnn_reset(c);
        w -= 0.1 * (w - 3);
        average = 0.75 * average + 0.25 * w;
    }
    CHECK_NEAR(entry(c, "w", 1), w, 1e-6);
    CHECK(eqnn_use_average(c, 1) && eqnn_use_average(c, 1));
    CHECK_NEAR(entry(c, "w", 1), average, 1e-6);
    CHECK(!eqnn_sgd_step(sgd));
    CHECK_ERROR(c, "averaged weights are in use");
    CHECK(eqnn_use_average(c, 0));
    CHECK_NEAR(entry(c, "w", 1), w, 1e-6);
}

TEST(optimizer_replaced)
{
    eqnn_ctx *c = test_context();
    eqnn_adam *old = eqnn_adam_make(c, NULL);
    double w = eqnn_at(eqnn_param(c, "w", 1, 1, NULL), 0, 0);
    pull(c, "w", 1, w - 1, 1);
    CHECK(eqnn_adam_step(old));
    eqnn_adam *adam = eqnn_adam_make(c, NULL);
    CHECK(eqnn_adam_steps(adam) == 0); /* starts anew */
    pull(c, "w", 1, w + 1, 1);
    CHECK(!eqnn_adam_step(old));
    CHECK_ERROR(c, "has replaced this one");
    CHECK(eqnn_adam_step(adam));
    CHECK_NEAR(entry(c, "w", 0), w,
               1e-6); /* the first step of each is the rate, whatever the gradient */
}

/* ---- many at once --------------------------------------------------------------------------- */

static eqnn_tensor *part_loss(eqnn_ctx *c, int first, int rows)
{
    double x[40], y[20];
    for (int i = 0; i < rows; i++) {
        for (int k = 0; k < 4; k++) x[4 * i + k] = sin(1.0 + 3 * (first + i) + 2 * k);
        y[i] = cos(2.0 * (first + i));
    }
    eqnn_tensor *h = eqnn_mlp(eqnn_from_double(c, rows, 4, x), "net", "8,1", NULL);
    h = eqnn_batch_norm(h, "bn", NULL);
    return eqnn_sum(eqnn_square(eqnn_sub(h, eqnn_from_double(c, rows, 1, y))));
}

TEST(workers)
{
    eqnn_ctx *c = test_context(), *w[2];
    eqnn_adam *adam = eqnn_adam_make(c, NULL);
    w[0] = context_with(c, 1, 0);
    w[1] = context_with(c, 1, 0);
    CHECK(!part_loss(w[0], 0, 5));
    CHECK_ERROR(w[0], "call the model once in the context that has the weights");
    part_loss(c, 0, 5);
    eqnn_reset(c);
    eqnn_freeze(c, "net.0.bias", 1);
    for (int i = 0; i < 2; i++) eqnn_backward(part_loss(c, 5 * i, 5));
    double norm = eqnn_gradient_norm(c);
    eqnn_zero_gradients(c);
    eqnn_reset(c);
    for (int i = 0; i < 2; i++) {
        eqnn_training(w[i], 1);
        eqnn_training(w[i], 0);
        eqnn_backward(part_loss(w[i], 5 * i, 5));
    }
    CHECK(eqnn_parameter_count(w[0]) == eqnn_parameter_count(c));
    CHECK(eqnn_data(eqnn_parameter(w[0], "net.1.bias")) ==
          eqnn_data(eqnn_parameter(c, "net.1.bias")));
    CHECK(eqnn_gradient_norm(c) <= 0);
    for (int i = 0; i < 2; i++) eqnn_add_gradients(c, w[i]);
    CHECK_NEAR(eqnn_gradient_norm(c), norm, test_eps(1e-13, 1e-5));
    CHECK(eqnn_gradient_norm(w[0]) <= 0);
    eqnn_training(w[1], 1); /* what a worker files is handed on */
    part_loss(w[1], 0, 5);
    eqnn_add_gradients(c, w[1]);
    double before = entry(c, "bn.running_var", 0), at = entry(c, "net.1.bias", 0);
    CHECK(eqnn_adam_step(adam));
    CHECK(fabs(entry(c, "bn.running_var", 0) - before) > 1e-6 &&
          fabs(entry(w[0], "net.1.bias", 0) - at) > 1e-4);
    CHECK(!eqnn_adam_make(w[0], NULL) && !eqnn_save(w[0], "/tmp/none"));
    CHECK_ERROR(w[0], "adam: a worker has no weights");
    eqnn_add_gradients(c, c);
    CHECK_ERROR(c, "does not use the weights");
    CHECK(!eqnn_set(eqnn_parameter(w[0], "net.1.bias"), &at));
    CHECK_ERROR(w[0], "only reads");
    eqnn_open(w[0], "net.");
    CHECK_ERROR(w[0], "open: a worker makes no weights");
}

/* Ten rows in parts; what a part draws depends on the tick, and differs from part to part. */
typedef struct in_parts { double draw[3]; int fails; } in_parts;

static void one_part(eqnn_ctx *worker, int part, int parts, void *user)
{
    in_parts *u = (in_parts *)user;
    int from = 10 * part / parts, to = 10 * (part + 1) / parts;
    eqnn_backward(part_loss(worker, from, to - from));
    u->draw[part] = eqnn_value(eqnn_uniform(worker, "draw", 1, 1));
    if (part == u->fails) eqnn_fail(worker, "not this one");
}

TEST(parts_of_a_batch)
{
    double norm[2], draw[2];
    for (int k = 0; k < 2; k++) {
        eqnn_ctx *c = test_context();
        eqnn_adam *adam = eqnn_adam_make(c, NULL);
        in_parts u = { { 0, 0, 0 }, -1 };
        part_loss(c, 0, 5);
        eqnn_reset(c);
        eqnn_parts *p = eqnn_parts_make(c, 3, k ? 3 : 1);
        CHECK(eqnn_parts_run(p, one_part, &u));
        norm[k] = eqnn_gradient_norm(c);
        draw[k] = u.draw[1];
        CHECK(norm[k] > 0.1 && fabs(u.draw[0] - u.draw[1]) > 1e-9);
        CHECK(eqnn_parts_run(p, one_part, &u)); /* no tick has passed; gradients add up */
        CHECK(!(fabs(draw[k] - u.draw[1]) > 0));
        CHECK_NEAR(eqnn_gradient_norm(c), 2 * norm[k], test_eps(1e-12, 1e-5));
        CHECK(eqnn_adam_step(adam));
        eqnn_reset(c);
        CHECK(eqnn_parts_run(p, one_part, &u));
        CHECK(fabs(draw[k] - u.draw[1]) > 1e-9);
        u.fails = 2;
        CHECK(!eqnn_parts_run(p, one_part, &u));
        CHECK_ERROR(c, "the worker failed: not this one");
        u.fails = -1; /* of the failed run nothing is left */
        eqnn_zero_gradients(c);
        eqnn_reset(c);
        CHECK(eqnn_parts_run(p, one_part, &u));
        double after = eqnn_gradient_norm(c);
        eqnn_zero_gradients(c);
        CHECK(eqnn_parts_run(p, one_part, &u));
        CHECK_NEAR(eqnn_gradient_norm(c), after, 0);
        CHECK(!eqnn_parts_make(c, 0, 1));
        CHECK_ERROR(c, "parts: 0 parts; possible are");
        eqnn_parts_free(p);
    }
    CHECK(!(fabs(norm[0] - norm[1]) > 0) && !(fabs(draw[0] - draw[1]) > 0)); /* to the bit */
}

typedef struct ranks { int calls; size_t count; } ranks;

static int halve(void *user, eqnn_real *values, size_t count)
{
    ranks *r = (ranks *)user;
    r->calls++;
    r->count += count;
    for (size_t i = 0; i < count; i++) values[i] /= 2;
    return r->calls < 100;
}

TEST(allreduce)
{
    eqnn_ctx *c = test_context();
    ranks r = { 0, 0 };
    eqnn_sgd *sgd = eqnn_sgd_make(c, NULL);
    eqnn_set_allreduce(c, halve, &r);
    double w = eqnn_at(eqnn_param(c, "w", 1, 3, NULL), 0, 2);
    pull(c, "w", 1, w - 1, 3);
    eqnn_file_update(eqnn_buffer(c, "b", 1, 1, NULL), eqnn_full(c, 1, 1, 8), 0.5);
    CHECK(eqnn_sgd_step(sgd));
    CHECK(r.calls == 2 && r.count >= 4);
    CHECK_NEAR(entry(c, "w", 2), w - 0.005, 1e-6);
    CHECK_NEAR(entry(c, "b", 0), 2, 1e-6);
    r.calls = 100;
    CHECK(!eqnn_sgd_step(sgd));
    CHECK_ERROR(c, "sgd: the allreduce callback failed");
}

/* ---- a run ---------------------------------------------------------------------------------- */

typedef struct counter { long calls; } counter;

static void *counting(void *user, void *old, size_t old_size, size_t new_size)
{
    (void)old_size;
    ((counter *)user)->calls++;
    if (new_size) return realloc(old, new_size);
    free(old);
    return NULL;
}

static double run(eqnn_ctx *c, eqnn_adam *adam, int steps)
{
    double loss = (double)NAN;
    eqnn_training(c, 1);
    for (int i = 0; i < steps && !eqnn_error(c); i++) {
        eqnn_tensor *x = test_normal(c, 64, 4), *h = eqnn_mlp(x, "net", "32,32", NULL);
        h = eqnn_dropout(eqnn_silu(eqnn_batch_norm(h, "bn", NULL)), "drop", 0.1);
        eqnn_tensor *y = eqnn_linear(h, "out", 1, NULL), *truth = eqnn_sum_cols(eqnn_square(x));
        test_serial = 0;
        eqnn_tensor *l = eqnn_mse(y, truth);
        loss = eqnn_value(l);
        eqnn_backward(l);
        eqnn_adam_step(adam);
        eqnn_reset(c);
    }
    return loss;
}

TEST(steady_state_allocates_nothing)
{
    counter k = { 0 };
    eqnn_opts o = test_opts();
    o.alloc = counting;
    o.alloc_user = &k;
    eqnn_ctx *c = eqnn_make(&o);
    eqnn_adam *adam = eqnn_adam_make(c, &(eqnn_adam_opts){ .clip = 1, .average = 0.99 });
    run(c, adam, 3);
    long calls = k.calls;
    size_t lasting = eqnn_memory_use(c).lasting;
    run(c, adam, 5);
    CHECK_OK(c);
    CHECK(k.calls == calls && eqnn_memory_use(c).lasting == lasting);
    eqnn_free(c);
}

TEST(learns_and_repeats)
{
    uint64_t hash[3];
    for (int i = 0; i < 3; i++) { /* again, and with other threads: the same bits */
        eqnn_ctx *c = context_with(NULL, i < 2 ? 1 : 3, 5);
        eqnn_adam *adam = eqnn_adam_make(c, &(eqnn_adam_opts){ .rate = 1e-2, .clip = 10 });
        double first = run(c, adam, 1), last = run(c, adam, 60);
        CHECK(last < 0.3 * first);
        test_note("loss %g -> %g", first, last);
        hash[i] = test_hash(c);
    }
    CHECK(hash[0] == hash[1] && hash[0] == hash[2]);
}

/* ---- schedules ------------------------------------------------------------------------------ */

TEST(schedules)
{
    eqnn_schedule s = { .kind = EQNN_COSINE, .rate = 2, .last = 1, .warmup = 10, .total = 30 };
    CHECK_NEAR(eqnn_schedule_rate(&s, 0), 0, 0);
    CHECK_NEAR(eqnn_schedule_rate(&s, 5), 1, 1e-15);
    CHECK_NEAR(eqnn_schedule_rate(&s, 10), 2, 1e-15);
    CHECK_NEAR(eqnn_schedule_rate(&s, 20), 1.5, 1e-15);
    CHECK_NEAR(eqnn_schedule_rate(&s, 30), 1, 1e-15);
    CHECK_NEAR(eqnn_schedule_rate(&s, 999), 1, 1e-15);
    s.least = 1.75; /* a floor; and the cosine begins with the warm-up */
    s.overlap = 1;
    CHECK_NEAR(eqnn_schedule_rate(&s, 0), 0, 0);
    CHECK_NEAR(eqnn_schedule_rate(&s, 5), 0.5 * (1.5 + 0.25 * sqrt(3)), 1e-14);
    CHECK_NEAR(eqnn_schedule_rate(&s, 10), 1.75, 1e-15);
    CHECK_NEAR(eqnn_schedule_rate(&s, 99), 1.75, 1e-15);
    s.first = 0.5; /* the warm-up's first rate */
    CHECK_NEAR(eqnn_schedule_rate(&s, 0), 0.5, 1e-15);
    s.overlap = 0;
    CHECK_NEAR(eqnn_schedule_rate(&s, 5), 1.25, 1e-15);
    CHECK_NEAR(eqnn_schedule_rate(&s, 0), 0.5, 1e-15);
    eqnn_schedule d = { .kind = EQNN_STEPS, .rate = 1, .every = 3 };
    CHECK_NEAR(eqnn_schedule_rate(&d, 2), 1, 1e-15);
    CHECK_NEAR(eqnn_schedule_rate(&d, 6), 0.01, 1e-15);
    d.factor = 0.5;
    CHECK_NEAR(eqnn_schedule_rate(&d, 6), 0.25, 1e-15);
    eqnn_schedule e = { .kind = EQNN_EXPONENTIAL, .rate = 1, .factor = 0.5 };
    CHECK_NEAR(eqnn_schedule_rate(&e, 3), 0.125, 1e-15);
    eqnn_schedule r = { .kind = EQNN_INVERSE_ROOT, .rate = 3, .every = 5, .warmup = 8 };
    CHECK_NEAR(eqnn_schedule_rate(&r, 4), 1.5, 1e-15);
    CHECK_NEAR(eqnn_schedule_rate(&r, 8 + 40), 1, 1e-15);
    r.overlap = 1;
    CHECK_NEAR(eqnn_schedule_rate(&r, 4), 1.5 / sqrt(1.8), 1e-15);
    CHECK_NEAR(eqnn_schedule_rate(&r, 40), 1, 1e-15);
    eqnn_schedule k = { .rate = 0.25 };
    CHECK_NEAR(eqnn_schedule_rate(&k, 1000), 0.25, 0);
    eqnn_plateau p = { .rate = 1, .patience = 2, .factor = 0.5, .min_rate = 0.3 };
    const double loss[10] = { 5, 4, 4, 4, 3.9999, 3, NAN, 3, 3, 3 };
    const double rate[10] = { 1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.3, 0.3 };
    for (int i = 0; i < 10; i++) CHECK_NEAR(eqnn_plateau_rate(&p, loss[i]), rate[i], 1e-15);
}

/* The line of a table that begins with a name, up to its end; "" when there is none. */
static const char *summary_line(eqnn_ctx *c, const char *name)
{
    static char line[400];
    FILE *f = tmpfile();
    int found = 0;
    if (f) eqnn_summary(c, f), rewind(f);
    while (f && !found && fgets(line, sizeof line, f)) found = !strncmp(line, name, strlen(name));
    if (f) fclose(f);
    return found ? line : "";
}

/* A rate of which nothing else is said stays; a floor holds from the end of the warm-up on. */
TEST(schedules_without_more)
{
    for (int kind = EQNN_CONSTANT; kind <= EQNN_INVERSE_ROOT; kind++) {
        eqnn_schedule s = { .kind = (eqnn_schedule_kind)kind, .rate = 0.5 };
        for (int step = 0; step < 30; step++) CHECK(eqnn_schedule_rate(&s, step) == 0.5);
        s.warmup = 4;
        s.least = 0.75;
        CHECK(eqnn_schedule_rate(&s, 3) == 0.375 && eqnn_schedule_rate(&s, 4) == 0.75);
        s.rate = s.least = 0; /* what learns nothing */
        s.overlap = 1;
        CHECK(eqnn_schedule_rate(&s, 2) == 0 && eqnn_schedule_rate(&s, 5) == 0);
    }
}

/* The rate after these losses. */
static double after(eqnn_plateau *p, int n, double loss)
{
    for (int i = 0; i < n; i++) eqnn_plateau_rate(p, loss);
    return p->rate;
}

TEST(plateau)
{
    eqnn_plateau p = { .rate = 1 }, q = { .rate = 1, .patience = 2, .threshold = 0.1 }, first = q;
    after(&p, 1, 1); /* better is less by more than a part in 10^4; the eleventh is one too many */
    CHECK(after(&p, 10, 1 - 0.9e-4) == 1);
    CHECK_NEAR(after(&p, 1, 1 - 0.9e-4), 0.1, 1e-15);
    CHECK_NEAR(after(&p, 10, 1), 0.1, 1e-15); /* counted anew */
    after(&p, 1, 1 - 1.1e-4);
    CHECK_NEAR(after(&p, 10, 1), 0.1, 1e-15);
    CHECK_NEAR(after(&p, 1, 1), 0.01, 1e-15);
    after(&q, 1, 10);
    CHECK(after(&q, 2, 9.1) == 1 && after(&q, 1, 8.9) == 1 && after(&q, 2, 8.1) == 1);
    CHECK_NEAR(after(&q, 1, 8.1), 0.1, 1e-15);
    after(&first, 3, NAN); /* is no loss to be better than */
    after(&first, 1, 5);
    CHECK(after(&first, 2, 5) == 1 && first.best == 5);
}

TEST(summary)
{
    eqnn_ctx *c = test_context();
    char text[4000];
    batched(two_layers(test_normal(c, 4, 5), "net"));
    two_layers(test_normal(c, 4, 5), "net");
    eqnn_freeze(c, "net.first.*", 1);
    eqnn_rate_scale(c, "net.second*", 0.5);
    FILE *f = tmpfile();
    if (!f) return;
    eqnn_summary(c, f);
    rewind(f);
    text[fread(text, 1, sizeof text - 1, f)] = 0;
    fclose(f);
    test_note("\n%s", text);
    CHECK(strstr(text, "[3,5]") && strstr(text, "  frozen") && strstr(text, "  rate x 0.5") &&
          strstr(text, "  buffer"));
    CHECK(strstr(text, "5 parameters, 28 numbers"));
}

/* A branch that is computed, but is no part of the loss; of a worker too. */
TEST(summary_of_what_has_no_gradient)
{
    for (int way = 0; way < 2; way++) {
        eqnn_ctx *c = test_context(), *d = way ? context_with(c, 1, 0) : c;
        eqnn_sgd *sgd = eqnn_sgd_make(c, NULL);
        two_layers(test_normal(c, 2, 5), "dead"), two_layers(test_normal(c, 2, 5), "net");
        two_layers(test_normal(c, 2, 5), "late"), batched(test_normal(c, 4, 2));
        eqnn_freeze(c, "net.second*", 1);
        eqnn_rate_scale(c, "dead.second*", 0.5);
        CHECK(*summary_line(c, "dead.first.weight"));
        CHECK(!strstr(summary_line(c, "dead.first.weight"), "gradient"));
        for (int step = 0; step < 3; step++) {
            two_layers(test_normal(d, 4, 5), "dead");
            eqnn_tensor *y = two_layers(test_normal(d, 4, 5), "net");
            if (step == 0) y = eqnn_add(y, batched(two_layers(test_normal(d, 4, 5), "late")));
            eqnn_backward(eqnn_sum(y));
            if (way) eqnn_add_gradients(c, d);
            if (step) CHECK(eqnn_sgd_step(sgd));
            if (step) eqnn_reset(c);
            CHECK(strstr(summary_line(c, "dead.first.weight"), "  no gradient\n"));
            CHECK(strstr(summary_line(c, "dead.second.weight"), "  rate x 0.5  no gradient\n"));
            CHECK(*summary_line(c, "net.first.bias") && *summary_line(c, "bn.running_mean"));
            CHECK(!strstr(summary_line(c, "net."), "gradient"));
            CHECK(!strstr(summary_line(c, "late."), "gradient"));
            CHECK(!strstr(summary_line(c, "net.second.weight"), "gradient"));
            CHECK(!strstr(summary_line(c, "bn.running_mean"), "gradient"));
        }
    }
}

TEST_MAIN
