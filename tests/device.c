/* device.c - numbers that live elsewhere: training on a device whose memory the host cannot touch

   Every model is trained twice, on the processor and on the device of device.h, which calls the
   same kernels. The losses, the weights and the saved files must be the same, bit for bit. */
#define _DEFAULT_SOURCE /* mmap, which -std=c99 hides */
#define _DARWIN_C_SOURCE
#define EQNN_STATIC
#define EQNN_IMPLEMENTATION
#ifndef EQNN_NO_VECTORS
#define EQNN_NO_VECTORS /* which kernels both sides call does not matter here */
#endif
#include "test.h"
#include "../eqnn_groups.h"
#include "device.h"

#if DEVICE_TESTS

static eqnn_ctx *far_context(void)
{
    eqnn_ctx *c = test_context();
    device_guard();
    CHECK(eqnn__device_use(c, &device_table, 0));
    return c;
}

/* Did every array lie where it belongs? */
static void check_places(eqnn_ctx *c)
{
    device_state *s = device_of(&c->device);
    if (s->faults) printf("    %d faults: %s\n", s->faults, s->fault);
    CHECK(s->faults == 0);
    s->faults = 0;
}

/* --- models, each as the loss of a step --- */

static eqnn_tensor *labelled(eqnn_tensor *x, const char *irreps)
{
    return eqnn_as(x, eqnn_irreps_make(eqnn_context(x), irreps));
}

static eqnn_tensor *points(eqnn_ctx *c, int n)
{
    return labelled(eqnn_scale(eqnn_normal(c, "points", n, 3), 1.2), "1x1o");
}

static eqnn_tensor *level(eqnn_tensor *y, double target)
{
    return eqnn_mean(eqnn_square(eqnn_shift(eqnn_as(y, NULL), -target)));
}

static eqnn_tensor *net_mlp(eqnn_ctx *c)
{
    static const int kinds[9] = { 0, 1, 2, 2, 1, 0, 0, 1, 2 };
    eqnn_ints *k = eqnn_ints_make(c, 9, kinds, 3, 0);
    eqnn_tensor *x = eqnn_concat(eqnn_normal(c, "x", 9, 5),
                                 eqnn_embedding(c, k, "kinds", 3, 4, NULL));
    x = eqnn_batch_norm(eqnn_linear(x, "in", 12, NULL), "batch", NULL);
    x = eqnn_dropout(eqnn_silu(x), "drop", 0.3);
    x = eqnn_layer_norm(eqnn_mlp(x, "body", "17,12", NULL), "layer", NULL);
    x = eqnn_linear(x, "out", 3, NULL);
    eqnn_tensor *rest = eqnn_segment_max(x, k), *mean = eqnn_segment_mean(x, k);
    rest = eqnn_add(eqnn_sum(eqnn_max_cols(x)), eqnn_sum(eqnn_sub(rest, mean)));
    return eqnn_add(eqnn_cross_entropy(x, k), eqnn_scale(eqnn_square(rest), 0.01));
}

/* Energies and forces of a network on a radius graph. */
static eqnn_tensor *net_gated(eqnn_ctx *c)
{
    eqnn_tensor *pos = points(c, 10);
    static const int example[10] = { 0, 0, 0, 0, 1, 1, 1, 1, 1, 1 };
    eqnn_graph_opts g = { .example = example, .examples = 2 };
    eqnn_network_opts o = { .hidden = "4x0e+2x1o+1x2e", .out = "1x0e", .layers = 2, .lmax = 2,
                            .radius = 2.5, .radial_neurons = 9, .neighbours = 4, .nodes = 5 };
    eqnn_tensor *E = eqnn_network(NULL, NULL, pos, eqnn_radius_graph(pos, 2.5, &g), "net", &o);
    eqnn_tensor *loss = level(E, 1), *F = eqnn_grad(eqnn_sum(E), pos);
    return eqnn_add(loss, eqnn_scale(level(F, 0), 0.1));
}

static eqnn_tensor *net_attention(eqnn_ctx *c)
{
    eqnn_tensor *pos = points(c, 8);
    eqnn_attention_opts o = { .q = "3x0e+2x1o", .k = "2x0e+2x1o", .out = "2x0e+2x1o", .radius = 3,
                              .lmax = 2, .basis = 6, .hidden = 7 };
    eqnn_tensor *y = eqnn_attention(labelled(eqnn_normal(c, "f", 8, 5), "2x0e+1x1o"), pos,
                                    eqnn_knn_graph(pos, 4, NULL), "head", &o);
    return level(y, 0.5);
}

static eqnn_tensor *net_contraction(eqnn_ctx *c)
{
    static const int kinds[6] = { 0, 1, 0, 1, 1, 0 };
    eqnn_contraction_opts o = { .species = eqnn_ints_make(c, 6, kinds, 2, 0) };
    eqnn_tensor *x = labelled(eqnn_normal(c, "x", 6, 36), "4x0e+4x1o+4x2e");
    eqnn_tensor *y = eqnn_symmetric_contraction(x, "product", "4x0e+4x1o", &o);
    y = eqnn_irreps_batch_norm(eqnn_irreps_linear(y, "mix", "6x0e+6x1o", NULL), "norm", NULL);
    return level(eqnn_s2_activation(eqnn_irreps_dropout(y, "drop", 0.2, NULL), EQNN_TANH, NULL),
                 0.3);
}

static eqnn_tensor *net_emlp(eqnn_ctx *c)
{
    const eqnn_group *g = eqnn_group_make(c, "SO(3)");
    const eqnn_rep *in = eqnn_rep_make(c, "2V+T0", g), *out = eqnn_rep_make(c, "V", g);
    eqnn_emlp_opts o;
    memset(&o, 0, sizeof o);
    o.channels = 24;
    o.layers = 2;
    return level(eqnn_emlp(eqnn_normal(c, "x", 5, 7), "net", in, out, g, &o), 0.2);
}

static eqnn_tensor *net_lie(eqnn_ctx *c)
{
    static const int example[9] = { 0, 0, 0, 0, 1, 1, 1, 1, 1 };
    const eqnn_lie *g = eqnn_lie_make(c, "SE(2)");
    eqnn_graph_opts o = { .loops = 1, .example = example, .examples = 2 };
    eqnn_lie_resnet_opts net;
    eqnn_lie_cloud a;
    eqnn_tensor *u, *q;
    memset(&net, 0, sizeof net);
    memset(&a, 0, sizeof a);
    net.layers = 2;
    net.width = 8;
    net.conv.fill = 0.6;
    eqnn_lie_lift(g, eqnn_normal(c, "points", 9, 2), "lift", 1, &u, &q);
    a.graph = eqnn_complete_graph(c, 9, &o);
    a.pairs = eqnn_lie_pairs(g, u, q, a.graph);
    a.distance = eqnn_lie_distance(g, a.pairs, 0.2);
    return level(eqnn_lie_resnet(eqnn_normal(c, "values", 9, 3), &a, "net", 2, &net), 0.3);
}

static eqnn_tensor *net_equiformer(eqnn_ctx *c)
{
    static const eqnn_equiformer_opts o = { .dim = "5,3", .dim_head = "3,2", .heads = "2,2",
                                            .depth = 2, .radial = 7, .start_random = 1,
                                            .reversible = 1 };
    eqnn_neighbour_opts near = { .neighbours = 4 };
    eqnn_tensor *pos = eqnn_scale(points(c, 7), 2);
    eqnn_tensor *x = labelled(eqnn_normal(c, "f", 7, 5), "5x0e");
    return level(eqnn_equiformer(x, NULL, pos, eqnn_neighbour_graph(pos, &near), "m", &o), 0.1);
}

static eqnn_tensor *net_equiformer_v1(eqnn_ctx *c)
{
    static const int kinds[7] = { 0, 1, 2, 2, 1, 0, 0 };
    static const eqnn_equiformer_v1_opts o = {
        .node = "6x0e+4x1e", .head = "3x0e+2x1e", .feature = "7x0e", .layers = 1, .heads = 2,
        .radius = 3, .functions = 5, .neurons = 6, .neighbours = 4, .nodes = 5
    };
    eqnn_tensor *pos = labelled(eqnn_as(points(c, 7), NULL), "1x1e");
    return level(eqnn_equiformer_v1(eqnn_ints_make(c, 7, kinds, 3, 0), pos,
                                    eqnn_radius_graph(pos, 3, NULL), "net", &o), 0.4);
}

static eqnn_tensor *net_equiformer_v2(eqnn_ctx *c)
{
    static const int kinds[6] = { 0, 3, 1, 1, 2, 0 };
    eqnn_equiformer_v2_opts o = { .lmax = 2, .blocks = 1, .channels = 4, .hidden = 5, .heads = 2,
                                  .alpha = 3, .value = 2, .ffn = 6, .edge_channels = 6,
                                  .gaussians = 12, .radius = 6, .nodes = 1, .neighbours = 3 };
    eqnn_tensor *pos = labelled(points(c, 6), "1x1o");
    return level(eqnn_equiformer_v2(eqnn_ints_make(c, 6, kinds, 5, 0), pos,
                                    eqnn_radius_graph(pos, 6, NULL), "net", &o), 0.4);
}

/* Blocks that are computed again, a reversible trunk, and what is made of parameters alone. */
static eqnn_tensor *block_of(eqnn_tensor *const *x, int n, void *user)
{
    (void)n;
    eqnn_tensor *y = eqnn_dropout(eqnn_mlp(x[0], (const char *)user, "8,6", NULL), "drop", 0.2);
    return eqnn_tanh(y);
}

static eqnn_tensor *half_of(int block, eqnn_tensor *const *x, int n, void *user)
{
    (void)n;
    (void)user;
    eqnn_ctx *c = eqnn_context(x[0]);
    return eqnn_tanh(eqnn_linear(x[0], eqnn_format(c, "half.%d", block), 6, NULL));
}

static eqnn_tensor *matrix_of(eqnn_ctx *c, const void *user)
{
    (void)user;
    return eqnn_tanh(eqnn_param(c, "matrix", 6, 6, NULL));
}

static eqnn_tensor *net_memory(eqnn_ctx *c)
{
    eqnn_tensor *x = eqnn_normal(c, "x", 7, 6);
    x = eqnn_add(x, eqnn_checkpoint(block_of, &x, 1, "again", 6));
    x = eqnn_matmul(x, eqnn_once(c, "twice", matrix_of, NULL));
    x = eqnn_matmul(x, eqnn_once(c, "twice", matrix_of, NULL));
    return level(eqnn_reversible(half_of, half_of, 3, &x, 1, NULL, 0), 0.3);
}

static eqnn_tensor *slope_of(eqnn_tensor *y, double t, void *user)
{
    (void)user;
    return eqnn_mlp(eqnn_scale(y, 1 + 0.1 * t), "field", "5,3", NULL);
}

static eqnn_tensor *net_ode(eqnn_ctx *c)
{
    static const double times[3] = { 0, 0.4, 1 };
    eqnn_ode_opts o;
    eqnn_tensor *a[3], *b[3], *y0 = eqnn_normal(c, "start", 4, 3);
    memset(&o, 0, sizeof o);
    o.adjoint = 1;
    if (!eqnn_ode(slope_of, y0, times, 3, a, NULL, &o)) return NULL;
    o.adjoint = 0;
    o.method = EQNN_MIDPOINT;
    o.checkpoint = 1;
    if (!eqnn_ode(slope_of, y0, times, 3, b, NULL, &o)) return NULL;
    return eqnn_add(level(a[2], 0.5), level(eqnn_mul(b[1], b[2]), 0.1));
}

typedef struct family { const char *name; eqnn_tensor *(*loss)(eqnn_ctx *c); } family;
static const family families[] = {
    { "mlp", net_mlp }, { "gated", net_gated }, { "attention", net_attention },
    { "contraction", net_contraction }, { "emlp", net_emlp }, { "lie", net_lie },
    { "equiformer", net_equiformer }, { "equiformer_v1", net_equiformer_v1 },
    { "equiformer_v2", net_equiformer_v2 }, { "memory", net_memory }, { "ode", net_ode }
};
enum { FAMILIES = sizeof families / sizeof *families };

/* --- training --- */

static eqnn_adam *optimizer(eqnn_ctx *c)
{
    eqnn_adam_opts o = { .rate = 0.02, .clip = 0.5, .average = 0.9, .decay = 0.01, .amsgrad = 1 };
    return eqnn_adam_make(c, &o);
}

static double step(eqnn_ctx *c, eqnn_adam *adam, const family *f)
{
    eqnn_training(c, 1);
    eqnn_tensor *loss = f->loss(c);
    eqnn_backward(loss);
    eqnn_adam_step(adam);
    double value = eqnn_value(loss);
    eqnn_reset(c);
    return value;
}

TEST(same_bits)
{
    for (int k = 0; k < FAMILIES; k++) {
        eqnn_ctx *c[2] = { test_context(), far_context() };
        eqnn_adam *adam[2] = { optimizer(c[0]), optimizer(c[1]) };
        device_state *s = device_of(&c[1]->device);
        int reserves = 0;
        for (int i = 0; i < 6; i++) {
            double here = step(c[0], adam[0], &families[k]);
            double there = step(c[1], adam[1], &families[k]);
            if (!(here == there))
                printf("    %s, step %d: %.9g, %.9g\n", families[k].name, i, here, there);
            CHECK(here == there);
            if (i == 3) reserves = s->reserves;
        }
        CHECK_OK(c[0]);
        CHECK_OK(c[1]);
        CHECK(test_hash(c[0]) == test_hash(c[1]));
        CHECK(s->reserves == reserves || k == 5); /* radii of LieConv move, its graphs as well */
        CHECK(eqnn_memory_use(c[1]).step_peak > 0 && eqnn_parameter_count(c[1]) > 0);
        CHECK(eqnn_gradient_norm(c[0]) == eqnn_gradient_norm(c[1]));
        check_places(c[1]);
    }
}

/* A step waits for nothing but graphs that are made from positions, steps of an integrator that
   follow the error and, in LieConv, a radius that the last step changed. */
TEST(steps_do_not_wait)
{
    static const int reads[FAMILIES] = { 0, 1, 1, 0, 0, 4, 2, 1, 1, 0, -1 };
    for (int k = 0; k < FAMILIES; k++) {
        eqnn_ctx *c = far_context();
        eqnn_adam *adam = optimizer(c);
        device_state *s = device_of(&c->device);
        int now = 0;
        for (int i = 0; i < 4; i++) {
            eqnn_training(c, 1);
            now = s->reads;
            eqnn_backward(families[k].loss(c));
            eqnn_adam_step(adam);
            eqnn_reset(c);
        }
        test_note("%s: %d reads", families[k].name, s->reads - now);
        CHECK(s->reads - now == reads[k] || reads[k] < 0);
        CHECK(s->waits >= s->reads && s->sends >= 4);
        check_places(c);
    }
}

/* --- files --- */

static char *file_bytes(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    char *bytes = (char *)malloc(1 << 20);
    *n = f && bytes ? fread(bytes, 1, 1 << 20, f) : 0;
    if (f) fclose(f);
    return bytes;
}

static int same_files(const char *a, const char *b)
{
    size_t n, m;
    char *x = file_bytes(a, &n), *y = file_bytes(b, &m);
    int same = n > 0 && n == m && x && y && !memcmp(x, y, n);
    free(x);
    free(y);
    return same;
}

static const char *path_of(char *path, const char *name)
{
    const char *folder = getenv("TMPDIR");
    snprintf(path, 300, "%.200s/eqnn_device_%d_%s", folder ? folder : "/tmp", (int)getpid(), name);
    return path;
}

/* A file does not tell where its numbers lived, and either kind of context continues it. */
TEST(files_and_resuming)
{
    char a[300], b[300], y[300], z[300];
    for (int k = 0; k < 2; k++) {
        eqnn_ctx *c[2] = { test_context(), far_context() };
        eqnn_adam *adam[2];
        for (int i = 0; i < 2; i++) {
            adam[i] = optimizer(c[i]);
            for (int n = 0; n < 3; n++) step(c[i], adam[i], &families[k]);
            CHECK(eqnn_save(c[i], path_of(i ? b : a, i ? "b" : "a")));
        }
        CHECK(same_files(a, b));
        for (int i = 0; i < 2; i++) { /* the other's file goes on as the run that was not cut */
            eqnn_ctx *d = i ? far_context() : test_context();
            CHECK(eqnn_load(d, i ? a : b, NULL));
            eqnn_adam *again = optimizer(d);
            for (int n = 0; n < 2; n++) {
                double new_loss = step(d, again, &families[k]);
                CHECK(new_loss == step(c[i], adam[i], &families[k]));
            }
            CHECK(test_hash(d) == test_hash(c[i]));
            CHECK(eqnn_save(d, path_of(z, "z")) && eqnn_save(c[i], path_of(y, "y")));
            CHECK(same_files(z, y));
            CHECK(eqnn_use_average(d, 1) && eqnn_use_average(c[i], 1));
            CHECK(test_hash(d) == test_hash(c[i]));
            CHECK(eqnn_use_average(d, 0) && eqnn_save(d, z) && same_files(z, y));
            if (i) check_places(d);
        }
        check_places(c[1]);
        remove(a);
        remove(b);
        remove(y);
        remove(z);
    }
}

/* --- one thing after the other --- */

TEST(reading_and_writing)
{
    static const double values[6] = { 1, -2, 3, 4, 5, -6 };
    eqnn_ctx *c = far_context();
    eqnn_real out[6];
    eqnn_tensor *x = eqnn_from_double(c, 2, 3, values), *y = eqnn_keep(x);
    CHECK(eqnn_at(x, 1, 2) == -6 && eqnn_value(eqnn_sum(x)) == 5);
    CHECK(eqnn_read(eqnn_neg(x), out) && out[0] == -1);
    const eqnn_real *v = eqnn_data(eqnn_abs(x));
    CHECK(v && v[1] == 2 && v[5] == 6);
    CHECK(eqnn_value(eqnn_sum(eqnn_full(c, 3, 3, 2))) == 18);
    CHECK(eqnn_value(eqnn_sum(eqnn_argmax(x))) == 3);
    CHECK(eqnn_stream(c) == NULL && eqnn_stream(NULL) == NULL);
    eqnn_tensor *p = eqnn_param(c, "p", 2, 3, NULL);
    CHECK(eqnn_set(p, values) && eqnn_at(p, 1, 1) == 5);
    CHECK(eqnn_backward(eqnn_sum(eqnn_square(p))));
    CHECK(eqnn_at(eqnn_gradient(p), 0, 1) == -4);
    FILE *file = tmpfile();
    CHECK(file != NULL);
    if (file) {
        eqnn_print(y, "y", file);
        eqnn_summary(c, file);
        CHECK(ftell(file) > 100);
        fclose(file);
    }
    eqnn_reset(c);
    CHECK(eqnn_at(y, 0, 2) == 3);
    check_places(c);
}

static eqnn_tensor *curved(eqnn_tensor *const *x, int n, void *user)
{
    (void)n;
    (void)user;
    return eqnn_tanh(eqnn_mul(eqnn_as(x[0], NULL), eqnn_norm(x[0])));
}

static eqnn_tensor *straight(eqnn_tensor *const *x, int n, void *user)
{
    (void)n;
    (void)user;
    return eqnn_mul(x[0], eqnn_norm(x[0]));
}

static eqnn_tensor *weighted(eqnn_tensor *const *x, int n, void *user)
{
    return eqnn_linear(curved(x, n, user), "weighted", 3, NULL);
}

TEST(checkers)
{
    eqnn_ctx *c = far_context();
    eqnn_tensor *x = points(c, 4);
    CHECK_NEAR(eqnn_check_gradients(weighted, &x, 1, NULL, 0, NULL), 0, test_eps(1e-6, 1e-2));
    double w = eqnn_at(eqnn_parameter(c, "weighted.weight"), 1, 2);
    eqnn_reset(c);
    x = points(c, 4);
    CHECK_NEAR(eqnn_check_gradients(weighted, &x, 1, NULL, 0, NULL), 0, test_eps(1e-6, 1e-2));
    CHECK_NEAR(eqnn_at(eqnn_parameter(c, "weighted.weight"), 1, 2), w, 0);
    CHECK_DERIVATIVES_OF(curved, &x, 1, NULL, 2);
    CHECK_SYMMETRY(straight, &x, 1, NULL);
    check_places(c);
}

/* What moves down may overlap with where it was. */
TEST(rewinding)
{
    eqnn_ctx *c[2] = { test_context(), far_context() };
    for (int big = 0; big < 3; big++) {
        eqnn_tensor *y[2];
        for (int i = 0; i < 2; i++) {
            eqnn_mark m = eqnn_mark_make(c[i]);
            int rows = big == 2 ? 40000 : 500;
            eqnn_normal(c[i], "above", big ? 100 : 2000, 3);
            y[i] = eqnn_rewind(m, eqnn_scale(eqnn_normal(c[i], "y", rows, 3), 2));
            CHECK(eqnn_rows(y[i]) == rows);
        }
        CHECK(!memcmp(eqnn_data(y[0]), eqnn_data(y[1]),
                      (size_t)eqnn_rows(y[0]) * 3 * sizeof(eqnn_real)));
        eqnn_reset(c[0]);
        eqnn_reset(c[1]);
    }
    check_places(c[1]);
}

TEST(out_of_memory)
{
    eqnn_ctx *c = far_context(), *same = test_context();
    device_state *s = device_of(&c->device);
    eqnn_adam *adam = optimizer(c), *other = optimizer(same);
    double x = step(c, adam, &families[1]), y = step(same, other, &families[1]);
    CHECK(x == y);
    eqnn_tensor *large = eqnn_full(c, 300, 300, 1);
    s->limit = s->used;
    CHECK(!eqnn_normal(c, "much", 3000, 3000));
    CHECK_ERROR(c, "random: out of memory on the device: ");
    CHECK(!eqnn_keep(large));
    CHECK_ERROR(c, "keep: out of memory on the device");
    eqnn_reset(c); /* what is there is enough for steps like the last */
    eqnn_reset(same);
    x = step(c, adam, &families[1]), y = step(same, other, &families[1]);
    CHECK(x == y);
    s->limit = DEVICE_SPACE;
    CHECK(eqnn_normal(c, "much", 3000, 3000) != NULL);
    check_places(c);
}

/* A gradient that is not finite is told when the next number is read; weights and the count of
   steps stand where they stood before it. */
TEST(not_finite)
{
    eqnn_ctx *c = far_context();
    eqnn_adam *adam = optimizer(c);
    for (int i = 0; i < 2; i++) step(c, adam, &families[3]);
    uint64_t before = test_hash(c);
    for (int i = 0; i < 3; i++) {
        eqnn_training(c, 1);
        eqnn_tensor *loss = families[3].loss(c), *w = eqnn_parameter(c, "mix.weight");
        if (i == 1) loss = eqnn_add(loss, eqnn_sum(eqnn_scale(w, HUGE_VAL)));
        CHECK(eqnn_backward(loss) && eqnn_adam_step(adam));
        eqnn_reset(c);
        if (i == 0) before = test_hash(c);
    }
    CHECK(!eqnn_error(c) && eqnn_adam_steps(adam) == 5);
    eqnn_value(eqnn_full(c, 1, 1, 1));
    CHECK_ERROR(c, "adam: step 3: the gradient of mix.weight is not finite; nothing was updated");
    CHECK(eqnn_adam_steps(adam) == 3 && eqnn_gradient_norm(c) == 0);
    CHECK(test_hash(c) == before);
    eqnn_reset(c);
    step(c, adam, &families[3]);
    CHECK(eqnn_adam_steps(adam) == 4 && test_hash(c) != before);
    check_places(c);
}

/* What fails on the device is told at the next wait, and the context goes on after eqnn_clear. */
TEST(late_errors)
{
    eqnn_ctx *c = far_context();
    eqnn_tensor *x = eqnn_full(c, 2, 2, 1);
    device_of(&c->device)->broken = "map: the device fell over";
    CHECK(!isfinite(eqnn_value(eqnn_sum(x))));
    CHECK_ERROR(c, "map: the device fell over");
    device_of(&c->device)->broken = "map: the device fell over";
    CHECK(!eqnn_save(c, "/tmp/eqnn_device_never"));
    CHECK_ERROR(c, "map: the device fell over");
    CHECK(eqnn_value(eqnn_sum(x)) == 4);
}

/* Workers live on their owner's device. */
static void part_of(eqnn_ctx *worker, int part, int parts, void *user)
{
    (void)parts;
    (void)user;
    eqnn_tensor *x = eqnn_normal(worker, eqnn_format(worker, "part%d", part), 5, 4);
    eqnn_backward(level(eqnn_batch_norm(eqnn_mlp(x, "net", "6,3", NULL), "norm", NULL), 0.2));
}

TEST(parts)
{
    eqnn_ctx *c[2] = { test_context(), far_context() };
    for (int i = 0; i < 2; i++) {
        eqnn_adam *adam = optimizer(c[i]);
        eqnn_training(c[i], 1);
        part_of(c[i], 0, 1, NULL);
        eqnn_zero_gradients(c[i]);
        eqnn_reset(c[i]);
        eqnn_parts *p = eqnn_parts_make(c[i], 3, 2);
        for (int n = 0; n < 3; n++) {
            CHECK(eqnn_parts_run(p, part_of, NULL) && eqnn_adam_step(adam));
            eqnn_reset(c[i]);
        }
        CHECK(eqnn_parameter_count(p->worker[0]) == eqnn_parameter_count(c[i]));
        eqnn_parts_free(p);
    }
    CHECK(test_hash(c[0]) == test_hash(c[1]));
    check_places(c[1]);
}

/* Graphs that are kept, and integers. */
TEST(kept_graphs)
{
    eqnn_ctx *c = far_context();
    eqnn_graph_opts o = { .keep = 1 };
    const eqnn_graph *g = eqnn_radius_graph(points(c, 8), 2.5, &o);
    CHECK(g && g->there != g && g->edges > 0);
    double before = 0;
    for (int i = 0; i < 2; i++) {
        eqnn_reset(c);
        eqnn_tensor *r = eqnn_edge_vectors(eqnn_keep(eqnn_full(c, 8, 3, 1)), g);
        CHECK(eqnn_value(eqnn_sum(eqnn_abs(eqnn_as(r, NULL)))) == 0);
        eqnn_tensor *count = eqnn_scatter(eqnn_full(c, g->edges, 1, 1), g);
        double now = eqnn_value(eqnn_sum(eqnn_square(count)));
        CHECK(i == 0 || now == before);
        before = now;
    }
    CHECK(before > 0);
    check_places(c);
}

/* Integers and their inverse take one copy. */
TEST(integers)
{
    static const int kinds[5] = { 2, 0, 2, 4, 0 };
    eqnn_ctx *c = far_context();
    device_state *s = device_of(&c->device);
    for (int keep = 0; keep < 2; keep++) {
        int before = s->writes;
        eqnn_ints *i = eqnn_ints_make(c, 5, kinds, 5, keep);
        CHECK(i && s->writes == before + 1);
        eqnn_tensor *x = eqnn_full(c, 5, 2, 3), *sum = eqnn_segment_sum(x, i);
        CHECK(eqnn_at(sum, 0, 1) == 6 && eqnn_at(sum, 1, 0) == 0 && eqnn_at(sum, 4, 0) == 3);
        CHECK(eqnn_value(eqnn_sum(eqnn_take(sum, i))) == 54);
        before = s->writes;
        eqnn_ints *none = eqnn_ints_make(c, 5, kinds, 0, keep);
        CHECK(none && s->writes == before + 1);
    }
    check_places(c);
}

/* A table that needs no working memory of ours gets none. */
TEST(working_memory)
{
    static eqnn__kernels table[2];
    size_t peak[2];
    for (int i = 0; i < 2; i++) {
        eqnn_ctx *c = test_context();
        table[i] = device_table;
        table[i].own_scratch = i;
        CHECK(eqnn__device_use(c, &table[i], 0));
        eqnn_tensor *a = eqnn_full(c, 100, 3000, 1), *b = eqnn_full(c, 3000, 100, 1);
        CHECK(eqnn_at(eqnn_matmul(a, b), 99, 99) == 3000);
        peak[i] = eqnn_memory_use(c).step_peak;
    }
    test_note("%zu and %zu bytes", peak[0], peak[1]);
    CHECK(peak[0] >= peak[1] + EQNN__GEMM_PARTS * 100 * 100 * sizeof(eqnn_real));
}

/* --- making --- */

TEST(choosing_a_device)
{
    static const char *const name[] = { "gpu", "cpux", "cuda:", "cuda:x", "cuda:12345" };
    eqnn_opts o = test_opts();
    for (int i = 0; i < 5; i++) {
        o.device = name[i];
        eqnn_ctx *c = eqnn_make(&o);
        CHECK_ERROR(c, eqnn_format(c, "device \"%s\" is unknown", name[i]));
        eqnn_free(c);
    }
    o.device = "cpu";
    eqnn_ctx *c = eqnn_make(&o);
    CHECK(!eqnn_error(c) && c->k == &eqnn__cpu);
    CHECK(!eqnn__device_use(c, &device_table, 1));
    CHECK_ERROR(c, "make: device cuda:1: there is 1 device; \"cpu\" works");
    CHECK(!eqnn_full(c, 1, 1, 2)); /* no clearing makes it compute elsewhere, nor its workers */
    o.weights_of = c;
    eqnn_ctx *worker = eqnn_make(&o);
    CHECK_ERROR(worker, "make: device cuda:1: there is 1 device; \"cpu\" works");
    CHECK(!eqnn_full(worker, 1, 1, 2));
    eqnn_free(worker);
    o.weights_of = NULL;
    eqnn_free(c);
#ifndef EQNN_CUDA
    static const char *const built[] = { "cuda", "cuda:0", "cuda:21" };
    for (int i = 0; i < 3; i++) {
        o.device = built[i];
        c = eqnn_make(&o);
        CHECK_ERROR(c, i < 2 ? "make: device cuda:0: this program was built without -DEQNN_CUDA; "
                               "\"cpu\" works" : "make: device cuda:21: this program was built");
        eqnn_free(c);
    }
#endif
}

TEST_MAIN
#else
TEST(no_such_device)
{
    test_note("no mmap here: numbers live on the processor");
}

TEST_MAIN
#endif
