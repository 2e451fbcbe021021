/* lieconv.c - tests of eqnn_groups.h, section 7: LieConv and its networks */
#include "lifts.h"
#include "memory.h"

/* n points of which `first` belong to the first example, the rest to the second. */
typedef struct set { eqnn_tensor *x, *values; int example[64], n; } set;

static set some(eqnn_ctx *c, int n, int first, int d, int channels)
{
    set s;
    s.n = n;
    for (int i = 0; i < n; i++) s.example[i] = i >= first;
    s.x = test_normal(c, n, d);
    s.values = test_normal(c, n, channels);
    return s;
}

/* Lifted points with the distance of alpha 0.2, or without any (alpha < 0). */
static eqnn_lie_cloud lifted(const eqnn_lie *g, eqnn_tensor *u, eqnn_tensor *q, const set *s,
                             double alpha)
{
    eqnn_graph_opts o;
    eqnn_lie_cloud a;
    memset(&o, 0, sizeof o);
    memset(&a, 0, sizeof a);
    o.loops = 1, o.example = s->example, o.examples = 2;
    a.graph = eqnn_complete_graph(eqnn_context(s->x), s->n, &o);
    a.pairs = eqnn_lie_pairs(g, u, q, a.graph);
    if (alpha >= 0) a.distance = eqnn_lie_distance(g, a.pairs, alpha);
    return a;
}

static eqnn_lie_cloud cloud_of(eqnn_tensor *x, const set *s, const char *group, double alpha)
{
    const eqnn_lie *g = eqnn_lie_make(eqnn_context(x), group);
    eqnn_tensor *u, *q;
    eqnn_lie_lift(g, x, "lift", 1, &u, &q);
    return lifted(g, u, q, s, alpha);
}

static eqnn_lie_resnet_opts small(void)
{
    eqnn_lie_resnet_opts o;
    memset(&o, 0, sizeof o);
    o.layers = 2, o.width = 16;
    return o;
}

/* ---- the layer ------------------------------------------------------------------------------- */

/* y[v] of node i by the formula: parameters and the kernel's numbers w [edges,16] are given. */
static double by_formula(const eqnn_lie_cloud *a, const eqnn_tensor *x, const eqnn_tensor *w,
                         double radius, int i, int v, const eqnn_lie_conv_opts *o)
{
    eqnn_ctx *c = eqnn_context(x);
    const eqnn_tensor *W = eqnn_parameter(c, "conv.linear.weight");
    double sum = 0, b = eqnn_at(eqnn_parameter(c, "conv.linear.bias"), 0, v);
    int n = 0;
    for (int e = 0; e < a->graph->edges; e++) {
        if (a->graph->target[e] != i || eqnn_at(a->distance, e, 0) >= radius) continue;
        n++;
        for (int u = 0; u < eqnn_cols(x); u++)
            for (int k = 0; k < 16; k++)
                sum += eqnn_at(W, v, 16 * u + k) * eqnn_at(x, a->graph->source[e], u) *
                       eqnn_at(w, e, k);
    }
    if (o->sum) return sum + b;
    return o->published ? (sum + b) / n : sum / n + b;
}

TEST(layer_is_its_formula)
{
    for (int mode = 0; mode < 3; mode++) {
        eqnn_ctx *c = test_context();
        eqnn_lie_conv_opts o;
        eqnn_mlp_opts mlp;
        memset(&o, 0, sizeof o);
        memset(&mlp, 0, sizeof mlp);
        o.sum = mode == 1, o.published = mode == 2, o.radius = 0.3;
        set s = some(c, 11, 6, 2, 5);
        eqnn_lie_cloud a = cloud_of(s.x, &s, "T(2)", 0.2);
        eqnn_training(c, 0);
        eqnn_tensor *y = eqnn_lie_conv(s.values, &a, "conv", 3, &o), *w = a.pairs;
        CHECK(eqnn_rows(y) == 11 && eqnn_cols(y) == 3);
        for (int k = 0; k < 3; k++) {
            char name[64];
            snprintf(name, sizeof name, "conv.weightnet.%d.module", 3 * k);
            w = eqnn_silu(eqnn_linear(w, name, k < 2 ? 32 : 16, NULL));
        }
        for (int i = 0; i < 11; i++)
            for (int v = 0; v < 3; v++)
                CHECK_NEAR(eqnn_at(y, i, v), by_formula(&a, s.values, w, 0.3, i, v, &o),
                           test_eps(1e-14, 2e-6));
        CHECK_OK(c);
    }
}

/* 32 D + 32 + 1056 + 528 [+ 160 with norms] + 16 in out + out */
TEST(layer_counts_its_weights)
{
    for (int norm = 0; norm < 2; norm++) {
        eqnn_ctx *c = test_context();
        eqnn_lie_conv_opts o;
        memset(&o, 0, sizeof o);
        o.norm = norm;
        set s = some(c, 5, 5, 3, 7);
        eqnn_lie_cloud a = cloud_of(s.x, &s, "SE(3)", 0.2);
        eqnn_lie_conv(s.values, &a, "conv", 4, &o);
        CHECK_OK(c);
        int size = 32 * 6 + 32 + 1056 + 528 + 160 * norm + 16 * 28 + 4;
        CHECK(eqnn_parameter_size(c) == (size_t)size);
    }
}

static eqnn_tensor *network_of_points(eqnn_tensor *const *x, int n, void *user)
{
    const set *s = (const set *)user;
    eqnn_lie_resnet_opts o = small();
    (void)n;
    eqnn_lie_cloud a = cloud_of(x[0], s, s->n == 7 ? "SO(2)" : "T(2)", -1);
    return eqnn_lie_resnet(x[1], &a, "net", 2, &o);
}

TEST(derivatives_by_points_and_values)
{
    for (int n = 6; n < 8; n++) {
        eqnn_ctx *c = test_context();
        set s = some(c, n, 3, 2, 3);
        eqnn_tensor *x[2] = { s.x, s.values };
        CHECK_DERIVATIVES_OF(network_of_points, x, 2, &s, 2);
        CHECK_OK(c);
    }
}

static eqnn_tensor *layer_with_norms(eqnn_tensor *const *x, int n, void *user)
{
    eqnn_lie_cloud a = *(const eqnn_lie_cloud *)user;
    eqnn_lie_conv_opts o;
    memset(&o, 0, sizeof o);
    o.norm = 1, o.published = n == 2, o.radius = 1e3;
    o.run = a.copies, a.copies = 1; /* the caller's place for it */
    a.pairs = x[1];
    return eqnn_lie_conv(x[0], &a, "conv", 3, &o);
}

TEST(derivatives_with_norms)
{
    for (int run = 0; run < 32; run += 16) {
        eqnn_ctx *c = test_context();
        set s = some(c, 7, 4, 2, 3);
        eqnn_lie_cloud a = cloud_of(s.x, &s, "T(2)", 0.2);
        eqnn_tensor *x[2] = { s.values, eqnn_detach(a.pairs) };
        a.copies = run;
        eqnn_training(c, 1);
        CHECK_DERIVATIVES_OF(layer_with_norms, x, 2, &a, 2);
        CHECK_OK(c);
    }
}

/* ---- runs of edges --------------------------------------------------------------------------- */

typedef struct numbers { double v[4096]; int n; } numbers;

static void append(numbers *a, const eqnn_tensor *x)
{
    for (int i = 0; i < eqnn_rows(x); i++)
        for (int k = 0; k < eqnn_cols(x) && a->n < 4096; k++) a->v[a->n++] = eqnn_at(x, i, k);
}

/* A layer's values, slopes by its arguments, those of a sum of slopes by the weights, and the
   statistics that it files. */
static void layer_numbers(numbers *all, int run, int mode, int threads)
{
    static const char *const buffers[] = { "conv.weightnet.1.running_mean",
                                           "conv.weightnet.4.running_var",
                                           "conv.weightnet.7.running_var" };
    eqnn_opts context = test_opts();
    eqnn_lie_conv_opts o;
    memset(&o, 0, sizeof o);
    context.threads = threads;
    eqnn_ctx *c = eqnn_make(&context);
    set s = some(c, 11, 6, 2, 5);
    s.x = eqnn_normal(c, "points", 11, 2), s.values = eqnn_normal(c, "values", 11, 5);
    eqnn_lie_cloud a = cloud_of(s.x, &s, "T(2)", 0.2);
    o.run = run, o.radius = 1e3, o.norm = mode > 0, o.published = mode == 2;
    eqnn_training(c, mode != 3);
    eqnn_tensor *y = eqnn_lie_conv(s.values, &a, "conv", 3, &o), *d[2], *by[2] = { s.values, s.x };
    CHECK(eqnn_grads(eqnn_sum(eqnn_square(y)), by, 2, d));
    append(all, y), append(all, d[0]), append(all, d[1]);
    CHECK(eqnn_backward(eqnn_sum(eqnn_square(d[1]))));
    eqnn_commit(c);
    for (int i = 0; i < eqnn_parameter_count(c); i++)
        append(all, eqnn_gradient(eqnn_parameter_at(c, i)));
    for (int i = 0; i < 3 && o.norm; i++) append(all, eqnn_parameter(c, buffers[i]));
    CHECK(all->n > 2000 && all->n < 4096);
    CHECK_OK(c);
    eqnn_free(c);
}

TEST(edges_in_runs_are_as_all_at_once)
{
    static const int runs[] = { -1, 16, 16, 33, 61, 1000 }; /* of 61 edges */
    for (int mode = 0; mode < 4; mode++) {
        numbers *all = (numbers *)calloc(6, sizeof *all);
        double size = 0, far = 0;
        for (int i = 0; i < 6; i++) layer_numbers(&all[i], runs[i], mode, i == 2 ? 3 : 1);
        for (int k = 0; k < all[0].n; k++) size = fmax(size, fabs(all[0].v[k]));
        for (int i = 1; i < 6; i++) {
            CHECK(all[i].n == all[0].n);
            for (int k = 0; k < all[0].n; k++) far = fmax(far, fabs(all[i].v[k] - all[0].v[k]));
        }
        test_note("mode %d: %d numbers up to %g, %.1e apart", mode, all[0].n, size, far);
        CHECK(far < test_eps(1e-13, 2e-5) * size);
        CHECK(!memcmp(all[1].v, all[2].v, sizeof all[1].v)); /* the same bits by 3 threads */
        CHECK(!memcmp(all[0].v, all[5].v, sizeof all[0].v));
        free(all);
    }
}

/* Of more than 65,536 edges not everything is remembered, unless it is asked for. */
TEST(many_edges_go_in_runs)
{
    for (int norm = 0; norm < 2; norm++) {
        double peak[3], y[3];
        for (int i = 0; i < 3; i++) {
            eqnn_opts context = test_opts();
            eqnn_ctx *c = eqnn_make(&context);
            eqnn_lie_conv_opts o;
            eqnn_lie_cloud a;
            eqnn_graph_opts all;
            memset(&all, 0, sizeof all);
            memset(&o, 0, sizeof o);
            o.norm = norm, o.radius = 1e3, o.run = i == 1 ? 1 << 13 : i == 2 ? -1 : 0;
            all.loops = 1;
            eqnn_training(c, 1);
            const eqnn_graph *graph = eqnn_complete_graph(c, 257, &all);
            CHECK(eqnn_lie_cloud_make(eqnn_lie_make(c, "T(2)"), eqnn_normal(c, "x", 257, 2),
                                      graph, "lift", 1, 0.2, &a));
            eqnn_tensor *sum = eqnn_lie_conv(eqnn_normal(c, "v", 257, 3), &a, "conv", 2, &o);
            sum = eqnn_sum(eqnn_square(sum));
            CHECK(eqnn_backward(sum));
            peak[i] = (double)eqnn_memory_use(c).step_peak, y[i] = eqnn_value(sum);
            CHECK_OK(c);
            eqnn_free(c);
        }
        test_note("%.0f bytes, %.0f when all is remembered", peak[0], peak[2]);
        CHECK(y[0] == y[1]);
        CHECK_NEAR(peak[0], peak[1], 1e-3 * peak[1]); /* chunks begin at other addresses */
        CHECK(peak[0] < 0.5 * peak[2]);
        CHECK_NEAR(y[0], y[2], test_eps(1e-12, 1e-4) * fabs(y[2]));
    }
}

/* Gradients reach every weight of the layer. */
TEST(derivatives_by_weights)
{
    eqnn_ctx *c = test_context();
    eqnn_lie_resnet_opts o = small();
    set s = some(c, 9, 4, 2, 3);
    eqnn_lie_cloud a = cloud_of(s.x, &s, "T(2)", 0.2);
    eqnn_tensor *loss = eqnn_sum(eqnn_square(eqnn_lie_resnet(s.values, &a, "net", 2, &o)));
    eqnn_backward(loss);
    for (int i = 0; i < eqnn_parameter_count(c); i++) {
        eqnn_tensor *d = eqnn_gradient(eqnn_parameter_at(c, i));
        if (!CHECK(eqnn_value(eqnn_sum(eqnn_square(d))) > 0))
            printf("    no gradient of %s\n", eqnn_parameter_name(c, i));
    }
    CHECK_OK(c);
}

/* ---- what does not change -------------------------------------------------------------------- */

static double apart(eqnn_tensor *a, eqnn_tensor *b)
{
    double far = 0;
    for (int i = 0; i < eqnn_rows(a); i++)
        for (int k = 0; k < eqnn_cols(a); k++)
            far = fmax(far, fabs(eqnn_at(a, i, k) - eqnn_at(b, i, k)));
    return a && b ? far : NAN;
}

/* Outputs of the network with points as they are and under x -> R x + t. */
static double change(const char *group, double angle, double scale, double tx, double ty)
{
    eqnn_ctx *c = test_context();
    eqnn_lie_resnet_opts o = small();
    set s = some(c, 12, 5, 2, 3);
    double m[4] = { scale * cos(angle), scale * sin(angle), -scale * sin(angle),
                    scale * cos(angle) }, t[2] = { tx, ty };
    eqnn_tensor *x = eqnn_matmul(s.x, eqnn_from_double(c, 2, 2, m));
    x = eqnn_add(x, eqnn_from_double(c, 1, 2, t));
    o.conv.radius = 1.5;
    eqnn_lie_cloud a = cloud_of(s.x, &s, group, 0.2), b = cloud_of(x, &s, group, 0.2);
    eqnn_lie_resnet(s.values, &a, "net", 2, &o);
    lifts_louder(c);
    eqnn_tensor *before = eqnn_lie_resnet(s.values, &a, "net", 2, &o);
    double far = apart(before, eqnn_lie_resnet(s.values, &b, "net", 2, &o));
    CHECK_OK(c);
    return far;
}

TEST(networks_are_invariant_under_their_group_and_no_other)
{
    double small_error = test_eps(1e-12, 2e-5), kept[7];
    const char *names[7];
    static const struct { const char *group; int turn, scale, tx, ty; } cases[] = {
        { "T(2)", 0, 0, 1, 1 }, { "Tx(2)", 0, 0, 1, 0 },    { "Ty(2)", 0, 0, 0, 1 },
        { "SO(2)", 1, 0, 0, 0 }, { "RxSO(2)", 1, 1, 0, 0 }, { "Rx", 0, 1, 0, 0 },
        { "SE(2)", 0, 0, 1, 1 }
    };
    for (size_t k = 0; k < sizeof cases / sizeof cases[0]; k++) {
        const char *g = cases[k].group;
        double turned = change(g, 0.7, 1, 0, 0), scaled = change(g, 0, 1.3, 0, 0);
        double moved[2] = { change(g, 0, 1, 0.6, 0), change(g, 0, 1, 0, 0.6) };
        test_note("%s: turned %.1e, scaled %.1e, moved %.1e %.1e", g, turned, scaled, moved[0],
                  moved[1]);
        CHECK(cases[k].turn ? turned < small_error : turned > 1e-3);
        CHECK(cases[k].scale ? scaled < small_error : scaled > 1e-3);
        CHECK(cases[k].tx ? moved[0] < small_error : moved[0] > 1e-3);
        CHECK(cases[k].ty ? moved[1] < small_error : moved[1] > 1e-3);
        names[k] = g;
        kept[k] = fmax(cases[k].turn ? turned : 0, cases[k].scale ? scaled : 0);
        kept[k] = fmax(kept[k], fmax(cases[k].tx ? moved[0] : 0, cases[k].ty ? moved[1] : 0));
    }
    test_show("LieConv, moved by its group, changes by", names, kept, 7);
}

/* An element in front of all lifted points changes nothing, also where lifts are random. */
TEST(networks_do_not_see_an_element_in_front)
{
    static const char *const groups[] = { "SE(2)", "SO(3)", "SE(3)", "RxSO(2)" };
    double all[4];
    for (int k = 0; k < 4; k++) {
        eqnn_ctx *c = test_context();
        const eqnn_lie *g = eqnn_lie_make(c, groups[k]);
        eqnn_lie_resnet_opts o = small();
        set s = some(c, 9, 4, eqnn_lie_point_dim(g), 3);
        eqnn_tensor *u, *q;
        eqnn_lie_lift(g, s.x, "lift", 1, &u, &q);
        eqnn_tensor *front = eqnn_lie_exp(g, test_uniform(c, 1, eqnn_lie_dim(g), -1, 1));
        eqnn_lie_cloud a = lifted(g, u, q, &s, 0.2);
        eqnn_lie_cloud b = lifted(g, eqnn_lie_product(g, front, u), q, &s, 0.2);
        eqnn_lie_resnet(s.values, &a, "net", 2, &o);
        lifts_louder(c);
        eqnn_tensor *y = eqnn_lie_resnet(s.values, &a, "net", 2, &o);
        double far = apart(y, eqnn_lie_resnet(s.values, &b, "net", 2, &o));
        all[k] = far;
        CHECK(far < test_eps(1e-12, 2e-5));
        CHECK_OK(c);
    }
    test_show("LieConv, with an element before all lifts, changes by", groups, all, 4);
}

static eqnn_tensor *convolved(const eqnn_lie *g, const lifts *l)
{
    eqnn_lie_resnet_opts o = small();
    eqnn_lie_cloud a;
    memset(&a, 0, sizeof a);
    a.graph = l->graph;
    a.pairs = eqnn_lie_pairs(g, l->u, l->q, l->graph);
    a.distance = eqnn_lie_distance(g, a.pairs, 0.2);
    o.conv.radius = 1.5;
    return eqnn_lie_resnet(l->values, &a, "net", 1, &o);
}

TEST(law_of_outputs_does_not_change) { lifts_check(convolved); }

/* ---- how many points ------------------------------------------------------------------------- */

TEST(zero_one_many_and_coincident_points)
{
    for (int n = 0; n < 3; n++)
        for (int norm = 0; norm < 2; norm++) {
            eqnn_ctx *c = test_context();
            eqnn_lie_resnet_opts o = small();
            set s = some(c, n, n, 2, 3);
            if (n == 2) s.x = eqnn_zeros(c, 2, 2);
            o.conv.norm = norm;
            eqnn_lie_cloud a = cloud_of(s.x, &s, "SE(2)", 0.2);
            eqnn_tensor *y = eqnn_lie_resnet(s.values, &a, "net", 2, &o);
            CHECK(eqnn_rows(y) == 2 && test_finite(y)); /* two examples, the second empty */
            CHECK(eqnn_at(y, 1, 0) == 0);
            CHECK(eqnn_backward(eqnn_sum(eqnn_square(y))));
            CHECK(test_finite(eqnn_gradient(eqnn_parameter(c, "net.net.0.module.weight"))));
            CHECK_OK(c);
        }
}

/* ---- neighbours ------------------------------------------------------------------------------ */

TEST(radius_learns_the_share_that_is_wanted)
{
    eqnn_ctx *c = test_context();
    eqnn_lie_conv_opts o;
    memset(&o, 0, sizeof o);
    o.fill = 0.3;
    eqnn_training(c, 1);
    set s = some(c, 60, 30, 2, 4);
    for (int step = 0; step < 60; step++) {
        eqnn_lie_cloud a = cloud_of(s.x, &s, "T(2)", 1);
        eqnn_lie_conv(s.values, &a, "conv", 4, &o);
        eqnn_commit(c);
    }
    eqnn_lie_cloud a = cloud_of(s.x, &s, "T(2)", 1);
    double r = eqnn_value(eqnn_parameter(c, "conv.r")), taken = 0;
    for (int e = 0; e < a.graph->edges; e++) taken += eqnn_at(a.distance, e, 0) < r;
    test_note("radius %g takes the share %g", r, taken / 60 / 30);
    CHECK_NEAR(taken / 60 / 30, 0.3, 0.02);
    const double gain[3] = { -1, 0, 0.1 };
    for (int k = 0; k < 3; k++) { /* stays; half of what is wanting; a tenth */
        char name[8] = { 'c', (char)('0' + k), 0 };
        o.gain = gain[k], o.radius = 1e3, o.fill = k == 0 ? 0 : 0.3;
        eqnn_lie_conv(s.values, &a, name, 4, &o);
        eqnn_commit(c);
        double moved = eqnn_value(eqnn_parameter(c, eqnn_format(c, "%s.r", name))) - 1e3;
        CHECK_NEAR(moved, (k == 0 ? 0 : k == 1 ? -0.5 : -0.1) * 0.7, test_eps(1e-9, 1e-4));
    }
    o.gain = o.radius = 0;
    eqnn_training(c, 0);
    eqnn_lie_conv(s.values, &a, "conv", 4, &o);
    eqnn_commit(c);
    CHECK(eqnn_value(eqnn_parameter(c, "conv.r")) == r);
    CHECK_OK(c);
}

/* With one neighbour drawn, the layer is the mean over several ticks of what it is with all (as
   sums: the mean over i's n neighbours times n). */
/* Each block wants the share of its own; without the pool there is a row for every node. */
TEST(fills_and_no_pool)
{
    static const double fills[2] = { 0.3, 0.8 };
    eqnn_ctx *c = test_context();
    eqnn_lie_resnet_opts o = small();
    set s = some(c, 8, 4, 2, 3);
    eqnn_lie_cloud a = cloud_of(s.x, &s, "T(2)", 1);
    o.fills = fills, o.conv.radius = 1e3, o.no_pool = 1;
    eqnn_training(c, 1);
    eqnn_tensor *rows = eqnn_lie_resnet(s.values, &a, "net", 3, &o);
    eqnn_commit(c);
    for (int b = 0; b < 2; b++) {
        double r = eqnn_value(eqnn_parameter(c, b ? "net.net.2.net.5.r" : "net.net.1.net.5.r"));
        CHECK_NEAR(r - 1e3, 0.5 * (fills[b] - 1), test_eps(1e-9, 1e-4));
    }
    o.no_pool = 0;
    CHECK(eqnn_rows(rows) == 8);
    CHECK_SAME(eqnn_pool_mean(rows, a.graph), eqnn_lie_resnet(s.values, &a, "net", 3, &o),
               test_eps(1e-13, 1e-5));
    CHECK_OK(c);
}

TEST(neighbours_are_drawn_evenly)
{
    eqnn_ctx *c = test_context();
    eqnn_lie_conv_opts o;
    memset(&o, 0, sizeof o);
    set s = some(c, 4, 4, 2, 3);
    double sum = 0, worst = 0;
    int ticks = 400, other = 0;
    eqnn_tensor *x = eqnn_keep(s.values), *points = eqnn_keep(s.x);
    for (int k = 0; k < ticks; k++) {
        eqnn_reset(c);
        eqnn_lie_cloud a = cloud_of(points, &s, "T(2)", -1);
        double all = eqnn_at(eqnn_lie_conv(x, &a, "conv", 1, &o), 0, 0);
        eqnn_lie_conv_opts one = o;
        one.most = 1;
        double some_of = eqnn_at(eqnn_lie_conv(x, &a, "conv", 1, &one), 0, 0);
        sum += some_of - all;
        worst = fmax(worst, fabs(some_of - all));
        other += fabs(some_of - all) > 1e-6;
        eqnn_tick(c);
    }
    test_note("mean difference %g, largest %g", sum / ticks, worst);
    CHECK(other > 0);
    CHECK(fabs(sum / ticks) < 4 * worst / sqrt((double)ticks));
    CHECK_OK(c);
}

TEST(samples_keep_the_pairs)
{
    for (int turned = 0; turned < 2; turned++) {
        eqnn_ctx *c = test_context();
        set s = some(c, 8, 5, 2, 3);
        const int chosen[4] = { 3, 1, 7, 5 };
        eqnn_lie_cloud a = cloud_of(s.x, &s, "SE(2)", 0.2), q, l;
        CHECK(eqnn_lie_sample(&a, eqnn_ints_make(c, 4, chosen, 8, 0), turned, &q, &l));
        CHECK(q.graph->sources == 8 && q.graph->targets == 4 && q.graph->edges == 16);
        CHECK(l.graph->sources == 4 && l.graph->edges == 8);
        for (int e = 0; e < 16 + 8; e++) {
            const eqnn_lie_cloud *part = e < 16 ? &q : &l;
            int at = e < 16 ? e : e - 16, back = turned && e >= 16;
            int i = chosen[part->graph->target[at]], j = part->graph->source[at], found = 0;
            if (e >= 16) j = chosen[j];
            for (int f = 0; f < a.graph->edges; f++) {
                if (a.graph->target[f] != (back ? j : i) || a.graph->source[f] != (back ? i : j))
                    continue;
                found++;
                for (int k = 0; k < 3; k++)
                    CHECK(eqnn_at(a.pairs, f, k) == eqnn_at(part->pairs, at, k));
                CHECK(eqnn_at(a.distance, f, 0) == eqnn_at(part->distance, at, 0));
            }
            CHECK(found == 1);
        }
        CHECK_OK(c);
    }
}

/* ---- networks -------------------------------------------------------------------------------- */

/* The trunk of the springs' network and the images' network have the published sizes. */
TEST(published_numbers_of_weights)
{
    static const struct { const char *group; size_t springs, images; } cases[] = {
        { "T(2)", 895297, 588645 }, { "SO(2)", 895425, 588837 }, { "Trivial(2)", 895553, 589029 }
    };
    for (int k = 0; k < 3; k++) {
        eqnn_lie_resnet_opts springs, images;
        int widths[7];
        double fills[6], share;
        memset(&springs, 0, sizeof springs);
        memset(&images, 0, sizeof images);
        springs.layers = 4;
        eqnn_lie_image_sizes(6, 128, 0.1, 0.1, widths, fills, &share);
        images.widths = widths, images.fills = fills, images.conv.norm = 1;
        CHECK_NEAR(share, 0.681292, 1e-6);
        CHECK(widths[6] == 404 && widths[1] == 155);
        eqnn_ctx *c = test_context(), *d = test_context();
        set s = some(c, 3, 3, 2, 2), t = some(d, 3, 3, 2, 1);
        eqnn_lie_cloud a = cloud_of(s.x, &s, cases[k].group, 0.2);
        eqnn_lie_cloud b = cloud_of(t.x, &t, cases[k].group, 0.2);
        eqnn_lie_resnet(s.values, &a, "V", 1, &springs);
        eqnn_lie_resnet(t.values, &b, "image", 10, &images);
        CHECK(eqnn_parameter_size(c) == cases[k].springs);
        CHECK(eqnn_parameter_size(d) == cases[k].images);
        CHECK_OK(c);
        CHECK_OK(d);
    }
}

/* Networks for molecules, B.10 and C.7 of the papers' codes: counted by a look at one atom. */
TEST(published_numbers_of_weights_for_molecules)
{
    static const struct { const char *group; size_t size; } cases[] = {
        { "T(3)", 21315553 }, { "SO(3)", 21315937 }, { "SE(3)", 21316129 }
    };
    for (int k = 0; k < 3; k++) {
        eqnn_opts context = test_opts();
        eqnn_lie_resnet_opts o;
        memset(&o, 0, sizeof o);
        o.width = 1536, o.conv.norm = 1;
        eqnn_ctx *c = eqnn_make(&context);
        set s = some(c, 1, 1, 3, 15);
        eqnn_lie_cloud a = cloud_of(s.x, &s, cases[k].group, 0.2);
        eqnn_training(c, 0);
        eqnn_lie_resnet(s.values, &a, "net", 1, &o);
        CHECK(eqnn_parameter_size(c) == cases[k].size);
        CHECK_OK(c);
        eqnn_free(c); /* 85 megabytes */
    }
}

/* Every block leads to fewer nodes; what is left is pooled. */
/* Examples that have their points in common: as if each were alone, with clouds made on the way or
   kept from before, also in the gradient. */
TEST(copies_are_as_if_alone)
{
    for (int mode = 0; mode < 4; mode++) {
        enum { N = 9, COPIES = 3, CHANNELS = 5 };
        eqnn_ctx *c = test_context();
        eqnn_lie_resnet_opts o = small();
        eqnn_lie_cloud queries[2], left;
        int chosen[6] = { 0, 2, 3, 5, 8, 7 }, kept[4] = { 0, 1, 3, 4 }, index[N * COPIES];
        set s = some(c, N, 5, 2, 1);
        eqnn_lie_cloud a = cloud_of(s.x, &s, "SO(2)", 0.2);
        eqnn_ints *list[2];
        list[0] = eqnn_ints_make(c, 5, chosen, N, 1), list[1] = eqnn_ints_make(c, 4, kept, 5, 1);
        o.chosen = list, o.conv.radius = 0.6;
        o.conv.published = mode == 1, o.conv.sum = mode == 2, o.no_pool = mode == 3;
        CHECK(eqnn_lie_sample(&a, list[0], mode == 1, &queries[0], &left));
        CHECK(eqnn_lie_sample(&left, list[1], mode == 1, &queries[1], NULL));
        CHECK(eqnn_lie_cloud_keep(&queries[0]) && eqnn_lie_cloud_keep(&queries[1]));
        CHECK(eqnn_lie_cloud_keep(&a));
        eqnn_tensor *x = eqnn_keep(test_normal(c, N * COPIES, CHANNELS));
        eqnn_reset(c);
        eqnn_lie_cloud all = a;
        all.copies = COPIES;
        for (int made = 0; made < 2; made++) {
            o.queries = made ? queries : NULL;
            eqnn_tensor *y = eqnn_lie_resnet(x, &all, "net", 2, &o);
            eqnn_tensor *dx = eqnn_grad(eqnn_sum(eqnn_square(y)), x);
            o.queries = NULL;
            for (int k = 0; k < COPIES; k++) {
                for (int i = 0; i < N; i++) index[i] = i * COPIES + k;
                eqnn_ints *mine = eqnn_ints_make(c, N, index, N * COPIES, 0);
                eqnn_tensor *v = eqnn_take(x, mine), *z = eqnn_lie_resnet(v, &a, "net", 2, &o);
                eqnn_tensor *dv = eqnn_grad(eqnn_sum(eqnn_square(z)), v), *d = eqnn_take(dx, mine);
                CHECK(eqnn_rows(y) == COPIES * eqnn_rows(z));
                for (int i = 0; i < eqnn_rows(z); i++) index[i] = i * COPIES + k;
                eqnn_ints *rows = eqnn_ints_make(c, eqnn_rows(z), index, eqnn_rows(y), 0);
                CHECK_NEAR(apart(z, eqnn_take(y, rows)), 0, test_eps(1e-14, 2e-6));
                CHECK_NEAR(apart(dv, d), 0, test_eps(1e-14, 2e-6));
            }
            eqnn_reset(c);
        }
        CHECK_OK(c);
        all.copies = 2;
        CHECK(!eqnn_lie_resnet(x, &all, "net", 2, &o));
        CHECK_ERROR(c, "27 rows for 9 nodes of 2 copies");
    }
}

TEST(networks_with_samples)
{
    eqnn_ctx *c = test_context();
    eqnn_lie_resnet_opts o = small();
    set s = some(c, 10, 5, 2, 3);
    const int one[6] = { 0, 2, 4, 5, 6, 9 }, two[2] = { 1, 4 };
    eqnn_ints *chosen[2] = { eqnn_ints_make(c, 6, one, 10, 0), eqnn_ints_make(c, 2, two, 6, 0) };
    const int widths[3] = { 8, 12, 16 };
    o.chosen = chosen, o.widths = widths, o.width = 0, o.no_pool = 1;
    eqnn_lie_cloud a = cloud_of(s.x, &s, "T(2)", 0.2);
    eqnn_tensor *rows = eqnn_lie_resnet(s.values, &a, "net", 3, &o);
    CHECK(eqnn_rows(rows) == 2 && eqnn_cols(rows) == 3);
    o.no_pool = 0;
    eqnn_tensor *y = eqnn_lie_resnet(s.values, &a, "net", 3, &o);
    CHECK_SAME(y, rows, 0); /* one node of each example is left */
    CHECK_OK(c);
}

/* ---- particles in motion --------------------------------------------------------------------- */

/* Two systems of n particles in the plane; constants are mass and a spring's strength. */
typedef struct system_of {
    eqnn_particles p;
    eqnn_tensor *z;
    const char *kind;
    int samples;
} system_of;

static system_of systems(eqnn_ctx *c, int n, const char *kind)
{
    int example[64];
    eqnn_graph_opts o;
    system_of s;
    memset(&o, 0, sizeof o);
    for (int i = 0; i < 2 * n; i++) example[i] = i >= n;
    o.loops = 1, o.example = example, o.examples = 2;
    s.p.graph = eqnn_complete_graph(c, 2 * n, &o);
    s.p.constants = test_uniform(c, 2 * n, 2, 0.2, 3);
    s.z = test_normal(c, 2 * n, 4);
    s.kind = kind;
    s.samples = !strcmp(kind, "SE(2)") || strstr(kind, "canonical") ? 2 : 1;
    return s;
}

/* The energy, or the field of the networks without one. */
static eqnn_tensor *model(eqnn_tensor *z, const system_of *s)
{
    eqnn_baseline_opts b;
    eqnn_lie_resnet_opts o = small();
    memset(&b, 0, sizeof b);
    b.width = 8, b.layers = 2;
    if (!strchr(s->kind, '(')) return eqnn_particle_baseline(z, &s->p, s->kind, "net", &b);
    const eqnn_lie *g = eqnn_lie_make(eqnn_context(z), s->kind);
    return eqnn_lie_energy(z, &s->p, g, s->samples, 0.2, "net", &o);
}

static int has_energy(const char *kind) { return strcmp(kind, "fc") && strcmp(kind, "ogn"); }

static eqnn_tensor *field(eqnn_tensor *z, double t, void *user)
{
    const system_of *s = (const system_of *)user;
    (void)t;
    eqnn_tensor *y = model(z, s);
    return has_energy(s->kind) ? eqnn_hamiltonian_field(y, z) : y;
}

static eqnn_tensor *field_of(eqnn_tensor *const *z, int n, void *user)
{
    (void)n;
    return field(z[0], 0, user);
}

static const char *const kinds[] = { "T(2)", "SO(2)", "SE(2)", "SE(2)_canonical(2)", "Trivial(2)",
                                     "fc",   "hfc",   "ogn",   "hogn", "vogn" };
enum { KINDS = sizeof kinds / sizeof kinds[0] };

/* dz/dt is (dH/dp, -dH/dq) by differences, and it has two more derivatives. */
TEST(fields_have_derivatives)
{
    for (int k = 0; k < KINDS; k++) {
        eqnn_ctx *c = test_context();
        system_of s = systems(c, 3, kinds[k]);
        double h = test_eps(1e-5, 1e-2);
        eqnn_tensor *dz = field(s.z, 0, &s);
        CHECK(eqnn_rows(dz) == 6 && eqnn_cols(dz) == 4);
        for (int i = 0; i < 4 && has_energy(kinds[k]); i++) {
            double step[4] = { 0, 0, 0, 0 };
            step[i] = h;
            const int row = 4;
            eqnn_tensor *H[2], *move = eqnn_from_double(c, 1, 4, step);
            move = eqnn_collect(move, eqnn_ints_make(c, 1, &row, 6, 0));
            H[0] = model(eqnn_sub(s.z, move), &s), H[1] = model(eqnn_add(s.z, move), &s);
            double slope = (eqnn_at(H[1], 1, 0) - eqnn_at(H[0], 1, 0)) / (2 * h);
            double ours = i < 2 ? -eqnn_at(dz, 4, 2 + i) : eqnn_at(dz, 4, i - 2);
            CHECK_NEAR(ours, slope, test_eps(1e-7, 1e-2));
        }
        if (sizeof(eqnn_real) == 8) CHECK_DERIVATIVES_OF(field_of, &s.z, 1, &s, 2);
        CHECK_OK(c);
    }
}

/* Forces add up to 0; those of SO(2) have no torque about the centre either. */
TEST(momentum_is_kept)
{
    for (int k = 0; k < KINDS; k++) {
        eqnn_ctx *c = test_context();
        system_of s = systems(c, 5, kinds[k]);
        if (!has_energy(kinds[k]) || !strcmp(kinds[k], "hogn")) continue;
        field(s.z, 0, &s);
        lifts_louder(c);
        eqnn_tensor *force = eqnn_slice(field(s.z, 0, &s), 2, 2);
        eqnn_tensor *sum = eqnn_pool_sum(force, s.p.graph), *x = eqnn_slice(s.z, 0, 2);
        double size = eqnn_value(eqnn_sum(eqnn_square(force))), torque = 0;
        x = eqnn_centred(x, s.p.graph);
        for (int i = 0; i < 5; i++)
            torque += eqnn_at(x, i, 0) * eqnn_at(force, i, 1) -
                      eqnn_at(x, i, 1) * eqnn_at(force, i, 0);
        test_note("%s: force %.1e, sum %.1e, torque %.1e", kinds[k], sqrt(size),
                  sqrt(eqnn_value(eqnn_sum(eqnn_square(sum)))), torque);
        CHECK(size > 1e-6);
        CHECK(eqnn_value(eqnn_sum(eqnn_square(sum))) < test_eps(1e-26, 1e-8) * (1 + size));
        if (!strcmp(kinds[k], "SO(2)")) CHECK(fabs(torque) < test_eps(1e-12, 1e-4));
        CHECK_OK(c);
    }
}

/* d(loss on a trajectory)/d(a weight) by differences: third derivatives of the tape. */
TEST(trajectories_have_gradients)
{
    for (int k = 0; k < 3; k++) {
        eqnn_ctx *c = test_context();
        system_of s = systems(c, 3, kinds[k]);
        double times[3] = { 0, 0.1, 0.2 }, loss[3], h = 1e-5;
        eqnn_ode_opts o;
        memset(&o, 0, sizeof o);
        o.method = EQNN_RK38;
        if (sizeof(eqnn_real) == 4) return; /* rounding hides the differences */
        field(s.z, 0, &s);
        lifts_louder(c);
        eqnn_tensor *w = eqnn_parameter(c, "net.net.2.net.5.weightnet.3.module.weight"), *y[3];
        double *v = (double *)calloc(1024, sizeof *v);
        for (int i = 0; i < 1024; i++) v[i] = (double)eqnn_data(w)[i];
        for (int i = 0; i < 3; i++) {
            v[7] += i == 1 ? h : i == 2 ? -2 * h : 0;
            eqnn_set(w, v);
            CHECK(eqnn_ode(field, s.z, times, 3, y, &s, &o));
            eqnn_tensor *end = eqnn_mean(eqnn_square(y[2]));
            if (i == 0) eqnn_backward(end);
            loss[i] = eqnn_value(end);
        }
        free(v);
        double slope = (loss[1] - loss[2]) / (2 * h), ours = eqnn_at(eqnn_gradient(w), 0, 7);
        test_note("%s: %g, by differences %g", kinds[k], ours, slope);
        CHECK(fabs(ours) > 1e-8);
        CHECK(fabs(ours - slope) < 1e-5 * fabs(slope) + 1e-11);
        CHECK_OK(c);
    }
}

/* The published ones, less the layers that take no part: 1,028 of HOGN, 197,376 of OGN; VOGN's has
   260 that are of another width. */
TEST(published_numbers_of_weights_in_motion)
{
    static const struct { const char *kind; int width; size_t size; } cases[] = {
        { "fc", 256, 213016 }, { "hfc", 256, 204033 }, { "ogn", 256, 401412 - 197376 },
        { "hogn", 256, 401669 - 1028 }, { "vogn", 512, 1584901 - 260 }
    };
    for (int k = 0; k < 5; k++) {
        eqnn_ctx *c = test_context();
        eqnn_baseline_opts o;
        memset(&o, 0, sizeof o);
        o.width = cases[k].width;
        system_of s = systems(c, 6, cases[k].kind);
        eqnn_particle_baseline(s.z, &s.p, cases[k].kind, "net", &o);
        CHECK(eqnn_parameter_size(c) == cases[k].size);
        CHECK_OK(c);
    }
}

TEST(no_one_and_coincident_particles)
{
    for (int k = 0; k < KINDS; k++)
        for (int n = 0; n < 3; n++) {
            eqnn_ctx *c = test_context();
            system_of s = systems(c, n, kinds[k]);
            if (n == 2) s.z = eqnn_zeros(c, 4, 4);
            eqnn_tensor *dz = field(s.z, 0, &s);
            if (n == 0 && (k == 5 || k == 6)) {
                CHECK_ERROR(c, "0 particles");
                continue;
            }
            CHECK(eqnn_rows(dz) == 2 * n && test_finite(dz));
            CHECK(eqnn_backward(eqnn_sum(eqnn_square(dz))));
            CHECK(eqnn_gradient_norm(c) < INFINITY);
            CHECK_OK(c);
        }
}

TEST(bad_particles)
{
    eqnn_ctx *c = test_context();
    system_of s = systems(c, 3, "fc");
    const eqnn_lie *g = eqnn_lie_make(c, "T(2)");
    eqnn_lie_cloud cloud;
    CHECK(!eqnn_particle_baseline(s.z, &s.p, "gnn", "net", NULL));
    CHECK_ERROR(c, "no network \"gnn\"");
    CHECK(!eqnn_particle_baseline(eqnn_slice(s.z, 0, 3), &s.p, "fc", "net", NULL));
    CHECK_ERROR(c, "3 columns");
    CHECK(!eqnn_kinetic(eqnn_slice_rows(s.z, 0, 4), &s.p));
    CHECK_ERROR(c, "4 states");
    CHECK(!eqnn_lie_energy(s.z, &s.p, g, 1, 1.5, "net", NULL));
    CHECK_ERROR(c, "alpha");
    CHECK(!eqnn_lie_energy(s.z, &s.p, g, 0, 0.5, "net", NULL));
    CHECK_ERROR(c, "sample");
    CHECK(!eqnn_lie_cloud_make(g, eqnn_zeros(c, 4, 2), s.p.graph, "lift", 1, 0.2, &cloud));
    CHECK_ERROR(c, "4 points");
    CHECK(!eqnn_lie_energy(s.z, NULL, g, 1, 0.5, "net", NULL));
    CHECK_ERROR(c, "lie_energy: the particles, or their graph or constants, are missing");
    CHECK(!eqnn_lie_energy(s.z, &s.p, NULL, 1, 0.5, "net", NULL));
    CHECK_ERROR(c, "lie_energy: the group is missing");
    CHECK(!eqnn_particle_baseline(s.z, &s.p, NULL, "net", NULL));
    CHECK_ERROR(c, "the kind of network is missing");
    const eqnn_baseline_opts none[2] = { { .width = -1 }, { .layers = -1 } };
    for (int i = 0; i < 2; i++) {
        CHECK(!eqnn_particle_baseline(s.z, &s.p, "fc", "net", &none[i]));
        CHECK_ERROR(c, "is -1; it must be positive, or 0 for the default");
    }
    CHECK(!eqnn_centred(s.z, NULL));
    CHECK_ERROR(c, "centred: the graph is missing");
    CHECK(!eqnn_lie_cloud_make(g, eqnn_slice(s.z, 0, 2), NULL, "lift", 1, 0.2, &cloud));
    CHECK_ERROR(c, "lie_cloud_make: the graph is missing");
    CHECK(!eqnn_hamiltonian_field(NULL, s.z));
    int example[6] = { 0, 0, 1, 1, 1, 1 };
    eqnn_graph_opts o;
    memset(&o, 0, sizeof o);
    o.loops = 1, o.example = example, o.examples = 2;
    s.p.graph = eqnn_complete_graph(c, 6, &o);
    CHECK(!eqnn_particle_baseline(s.z, &s.p, "hfc", "net", NULL));
    CHECK_ERROR(c, "same number");
    CHECK(eqnn_particle_baseline(s.z, &s.p, "hogn", "net", NULL));
    CHECK_OK(c);
}

/* ---- errors ---------------------------------------------------------------------------------- */

TEST(bad_input)
{
    eqnn_ctx *c = test_context();
    eqnn_lie_resnet_opts o = small();
    const int twice[2] = { 1, 1 };
    set s = some(c, 6, 3, 2, 3);
    eqnn_lie_cloud a = cloud_of(s.x, &s, "T(2)", 0.2), b = a, out;
    CHECK(!eqnn_lie_conv(NULL, &a, "conv", 3, NULL));
    CHECK(!eqnn_lie_conv(s.values, NULL, "conv", 3, NULL));
    CHECK_ERROR(c, "lie_conv: the cloud, or its graph or pairs, is missing");
    CHECK(!eqnn_lie_conv(s.values, &a, "conv", 0, NULL));
    CHECK_ERROR(c, "0 channels");
    CHECK(!eqnn_lie_conv(s.values, &a, NULL, 3, NULL));
    CHECK_ERROR(c, "no name");
    CHECK(!eqnn_lie_conv(test_normal(c, 5, 3), &a, "conv", 3, NULL));
    CHECK_ERROR(c, "5 rows for 6 nodes");
    b.pairs = eqnn_slice_rows(a.pairs, 0, 3);
    CHECK(!eqnn_lie_conv(s.values, &b, "conv", 3, NULL));
    CHECK_ERROR(c, "3 pairs");
    b = a;
    b.distance = a.pairs;
    CHECK(!eqnn_lie_conv(s.values, &b, "conv", 3, NULL));
    CHECK_ERROR(c, "one column");
    CHECK(!eqnn_lie_sample(&a, eqnn_ints_make(c, 2, twice, 6, 0), 0, &out, NULL));
    CHECK_ERROR(c, "twice");
    o.width = 3;
    CHECK(!eqnn_lie_resnet(s.values, &a, "narrow", 1, &o));
    CHECK_ERROR(c, "at least 4");
    o = small();
    o.layers = -1;
    CHECK(!eqnn_lie_resnet(s.values, &a, "none", 1, &o));
    CHECK_ERROR(c, "lie_resnet in none: -1 layers");
    const eqnn_lie_conv_opts bad[] = { { .fill = -1 }, { .fill = 3 }, { .fill = NAN },
                                       { .radius = -1 }, { .radius = NAN }, { .most = -1 } };
    for (int i = 0; i < 6; i++) {
        o = small();
        o.conv = bad[i];
        CHECK(!eqnn_lie_conv(s.values, &a, "conv", 3, &bad[i]));
        CHECK_ERROR(c, "lie_conv in conv: fill");
        CHECK(!eqnn_lie_resnet(s.values, &a, "net", 1, &o));
        CHECK_ERROR(c, "nothing may be negative");
    }
    const eqnn_lie_conv_opts drift = { .gain = NAN };
    CHECK(!eqnn_lie_conv(s.values, &a, "conv", 3, &drift));
    CHECK_ERROR(c, "the gain is nan");
    o = small();
    CHECK(eqnn_rows(eqnn_lie_resnet(s.values, &a, "good", 1, &o)) == 2);
    CHECK_OK(c);
}

/* ---- memory -------------------------------------------------------------------------------- */

static int lie_graphs(eqnn_ctx *c)
{
    const eqnn_lie *g = eqnn_lie_make(c, "SE(2)");
    eqnn_lie_graph_opts o;
    eqnn_tensor *u = NULL, *x = test_normal(c, 40, 2);
    int example[40];
    for (int i = 0; i < 40; i++) example[i] = i / 15;
    memset(&o, 0, sizeof o);
    o.example = example;
    o.most = 6;
    return eqnn_lie_lift(g, x, "lift", 1, &u, NULL) && eqnn_lie_graph(g, u, NULL, 0.2, &o);
}

/* A layer with norms whose edges go in runs, with its gradients */
static int lie_runs(eqnn_ctx *c)
{
    const eqnn_lie *g = eqnn_lie_make(c, "T(2)");
    eqnn_lie_cloud a;
    eqnn_lie_conv_opts o;
    eqnn_graph_opts all;
    memset(&o, 0, sizeof o);
    memset(&all, 0, sizeof all);
    o.norm = 1, o.run = 16, o.radius = 1e3, all.loops = 1;
    eqnn_training(c, 1);
    const eqnn_graph *graph = eqnn_complete_graph(c, 7, &all);
    if (!eqnn_lie_cloud_make(g, eqnn_normal(c, "x", 7, 2), graph, "lift", 1, 0.2, &a)) return 0;
    eqnn_tensor *y = eqnn_lie_conv(eqnn_normal(c, "v", 7, 3), &a, "conv", 2, &o);
    return eqnn_backward(eqnn_sum(eqnn_square(y)));
}

TEST(graphs_and_runs_leak_no_memory)
{
    check_leaks(lie_graphs);
    check_buffer(lie_graphs);
    check_leaks(lie_runs);
    check_buffer(lie_runs);
}

/* An option that nothing reads is refused, with what it is for. */
TEST(options_without_use)
{
    static const int widths[3] = { 8, 8, 8 };
    static const double fills[2] = { 0.5, 0.5 };
    static const struct { eqnn_lie_conv_opts o; const char *free, *with; } k[] = {
        { { .fill = 0.5 }, ".fill is set, but of no use where pairs have no distance", NULL },
        { { .radius = 3 }, ".radius is set", NULL },
        { { .gain = 0.1 }, ".gain is set", NULL },
        { { .gain = -1 }, ".gain is set", NULL },
        { { .fill = 0.5, .gain = -1 }, ".fill is set", ".fill is set, but of no use with .gain" },
        { { .fill = 1 }, NULL, NULL },
        { { .most = 2, .norm = 1, .sum = 1, .run = 16 }, NULL, NULL },
    };
    eqnn_ctx *c = test_context();
    set s = some(c, 6, 3, 2, 4);
    eqnn_lie_cloud a = cloud_of(s.x, &s, "T(2)", 1), all = a;
    all.distance = NULL;
    for (size_t i = 0; i < sizeof k / sizeof *k; i++)
        for (int free = 0; free < 2; free++) {
            const char *error = free ? k[i].free : k[i].with, *name = eqnn_format(c, "c%d", (int)i);
            const eqnn_lie_cloud *cloud = free ? &all : &a;
            eqnn_lie_resnet_opts o = small();
            o.conv = k[i].o;
            CHECK(!eqnn_lie_conv(s.values, cloud, name, 4, &k[i].o) == (error != NULL));
            if (error) CHECK_ERROR(c, error);
            name = eqnn_format(c, "n%d", (int)i);
            CHECK(!eqnn_lie_resnet(s.values, cloud, name, 2, &o) == (error != NULL));
            if (error) CHECK_ERROR(c, error);
            CHECK_OK(c);
        }
    eqnn_lie_resnet_opts o = small(), both = o, chosen = o, row = o;
    o.widths = widths;
    CHECK(!eqnn_lie_resnet(s.values, &a, "w", 2, &o));
    CHECK_ERROR(c, "lie_resnet: .width is set, but of no use beside .widths");
    both.fills = fills, both.conv.fill = 0.5;
    CHECK(!eqnn_lie_resnet(s.values, &a, "w", 2, &both));
    CHECK_ERROR(c, ".conv.fill is set, but of no use beside .fills");
    chosen.queries = &a;
    CHECK(!eqnn_lie_resnet(s.values, &a, "w", 2, &chosen));
    CHECK_ERROR(c, ".queries is set, but of no use without .chosen");
    row.no_pool = 1;
    eqnn_particles p = { a.graph, eqnn_full(c, 6, 1, 1) };
    CHECK(!eqnn_lie_energy(test_normal(c, 6, 4), &p, eqnn_lie_make(c, "T(2)"), 1, 0.2, "e", &row));
    CHECK_ERROR(c, "lie_energy: .no_pool is set, but of no use where an example has one energy");
}

TEST_MAIN
