/* graphs.c - tests of section 12: sorting, pairs, blocks, radius graphs, sums over edges

   Every graph is compared with what a few nested loops say. */
#include "test.h"

/* --- what a graph must satisfy --- */

/* Sorted by (target, source); first, by_source and first_by_source describe the same edges. */
static int is_sorted(const eqnn_graph *g)
{
    if (!g || g->first[0] != 0 || g->first[g->targets] != g->edges) return 0;
    if (g->first_by_source[0] != 0 || g->first_by_source[g->sources] != g->edges) return 0;
    for (int e = 1; e < g->edges; e++) {
        int a = g->by_source[e - 1], b = g->by_source[e];
        if (g->target[e - 1] > g->target[e]) return 0;
        if (g->target[e - 1] == g->target[e] && g->source[e - 1] > g->source[e]) return 0;
        if (g->source[a] > g->source[b]) return 0;
        if (g->source[a] == g->source[b] && g->target[a] > g->target[b]) return 0;
    }
    for (int i = 0; i < g->targets; i++)
        for (int e = g->first[i]; e < g->first[i + 1]; e++)
            if (g->target[e] != i) return 0;
    for (int i = 0; i < g->sources; i++)
        for (int q = g->first_by_source[i]; q < g->first_by_source[i + 1]; q++)
            if (g->source[g->by_source[q]] != i) return 0;
    return 1;
}

/* A pair is an edge and its reverse (through the opposite image), or a loop alone. */
static int pairs_hold(const eqnn_graph *g)
{
    int *seen = (int *)calloc((size_t)g->pairs + 1, sizeof *seen), good = 1;
    for (int e = 0; e < g->edges; e++) {
        int p = g->pair[e], f = g->pair_edge[p];
        int same = f == e, back = g->source[e] == g->target[f] && g->target[e] == g->source[f];
        for (int k = 0; k < 3 && g->shift && !same; k++)
            if (g->shift[3 * e + k] != -g->shift[3 * f + k]) back = 0;
        if (!same && !back) good = 0;
        seen[p]++;
    }
    for (int p = 0; p < g->pairs; p++)
        if (seen[p] !=
            (g->source[g->pair_edge[p]] == g->target[g->pair_edge[p]] && !g->shift ? 1 : 2))
            good = 0;
    free(seen);
    return good;
}

static int blocks_hold(const eqnn_graph *g)
{
    if (g->block[0] != 0 || g->block[g->blocks] != g->targets) return 0;
    for (int b = 0; b < g->blocks; b++) {
        if (g->block[b + 1] <= g->block[b]) return 0;
        for (int e = g->first[g->block[b]]; e < g->first[g->block[b + 1]]; e++)
            if (g->source[e] < g->block[b] || g->source[e] >= g->block[b + 1]) return 0;
    }
    return 1;
}

/* --- graphs from lists --- */

TEST(list_is_sorted_and_remembered)
{
    eqnn_ctx *c = test_context();
    int source[400], target[400], edges = 400;
    for (int e = 0; e < edges; e++) {
        source[e] = (e * 7919 + e / 13) % 17;
        target[e] = (e * 104729 + e / 7) % 11;
    }
    eqnn_graph_opts o = { .sources = 17, .targets = 11 };
    const eqnn_graph *g = eqnn_graph_make(c, edges, source, target, &o);
    CHECK(g && is_sorted(g));
    CHECK(g->sources == 17 && g->targets == 11 && g->examples == 1 && !g->example);
    CHECK(g->pairs == 0 && g->blocks == 0); /* sources are other things than targets */
    CHECK(g->order == eqnn_graph_order(g) && !eqnn_graph_order(NULL));
    int *seen = (int *)calloc((size_t)edges, sizeof *seen), good = 1;
    for (int e = 0; e < edges; e++) {
        seen[g->order[e]]++;
        good &= g->source[e] == source[g->order[e]] && g->target[e] == target[g->order[e]];
    }
    for (int e = 0; e < edges; e++) good &= seen[e] == 1;
    CHECK(good);
    free(seen);
    eqnn_reset(c);
    CHECK(!eqnn_graph_order(g));
    CHECK_ERROR(c, "graph_order");
}

TEST(pairs_of_lists)
{
    eqnn_ctx *c = test_context();
    eqnn_graph_opts o = { .targets = 4 };
    int s1[] = { 0, 1, 2, 1, 3, 2 }, t1[] = { 1, 0, 1, 2, 3, 0 };
    const eqnn_graph *g = eqnn_graph_make(c, 5, s1, t1, &o);
    CHECK(g->pairs == 3 && pairs_hold(g)); /* 0-1, 1-2 and the loop of 3 */
    CHECK(g->blocks == 2 && blocks_hold(g));
    CHECK(eqnn_graph_make(c, 6, s1, t1, &o)->pairs == 0); /* 2 -> 0 has no reverse */
    int s2[] = { 0, 0, 1, 1 }, t2[] = { 1, 1, 0, 0 };
    g = eqnn_graph_make(c, 4, s2, t2, &o);
    CHECK(g->pairs == 0 && is_sorted(g)); /* twice the same: which is whose reverse? */
    double shift[12] = { 1, 0, 0, 0, 0, 0, -1, 0, 0, -0.0, 0, 0 };
    o.shift = shift;
    g = eqnn_graph_make(c, 4, s2, t2, &o);
    CHECK(g->pairs == 2 && pairs_hold(g)); /* their images tell */
    int s3[] = { 2, 2, 0 }, t3[] = { 2, 2, 0 };
    double images[9] = { 0, 3, 0, 0, -3, 0, 0, 0, 0 };
    o.shift = images;
    g = eqnn_graph_make(c, 3, s3, t3, &o);
    CHECK(g->pairs == 2 && g->blocks == 4 &&
          blocks_hold(g)); /* a node and its own image; a true loop */
}

TEST(lists_that_are_no_graph)
{
    eqnn_ctx *c = test_context();
    int s[] = { 0, 5 }, t[] = { 1, 1 }, down[] = { 1, 0 }, up[] = { 0, 3 };
    eqnn_graph_opts o = { .targets = 2 };
    CHECK(!eqnn_graph_make(c, 2, s, t, &o));
    CHECK_ERROR(c, "edge 1 leads from 5 to 1");
    CHECK(!eqnn_graph_make(c, 2, s, t, NULL));
    CHECK_ERROR(c, "how many nodes");
    CHECK(!eqnn_graph_make(c, -1, s, t, &o));
    CHECK_ERROR(c, "not a graph");
    o.example = down;
    CHECK(!eqnn_graph_make(c, 1, s, t, &o));
    CHECK_ERROR(c, "example[1] = 0");
    o.example = up;
    o.examples = 2;
    CHECK(!eqnn_graph_make(c, 1, s, t, &o));
    CHECK_ERROR(c, "example[1] = 3 of 2");
    o.example = NULL;
    CHECK(!eqnn_graph_make(c, 1, s, t, &o));
    CHECK_ERROR(c, "2 examples but no array");
    double nan[3] = { 0, NAN, 0 };
    eqnn_graph_opts p = { .targets = 2, .shift = nan };
    CHECK(!eqnn_graph_make(c, 1, s, t, &p));
    CHECK_ERROR(c, "shift of edge 0");
}

/* What a kind of graph has no use for is refused: a cell that is not looked at would be missed. */
TEST(options_of_other_graphs)
{
    static const double cell[9] = { 3, 0, 0, 0, 3, 0, 0, 0, 3 };
    static const int example[3] = { 0, 0, 1 };
    eqnn_ctx *c = test_context();
    int s[] = { 0, 1 }, t[] = { 1, 0 };
    eqnn_tensor *pos = test_normal(c, 3, 3);
    for (int k = 0; k < 3; k++) {
        eqnn_graph_opts o = { .targets = 3, .cell = k == 0 ? cell : NULL, .loops = k == 1,
                              .max_edges = k == 2 ? 1 : 0 };
        CHECK(!eqnn_graph_make(c, 2, s, t, &o));
        CHECK_ERROR(c, "graph_make: the edges are given");
    }
    eqnn_graph_opts o = { .cell = cell };
    CHECK(!eqnn_knn_graph(pos, 1, &o));
    CHECK_ERROR(c, "knn_graph: cells are for eqnn_radius_graph");
    o.cell = NULL;
    o.source_example = example;
    CHECK(!eqnn_knn_graph(pos, 1, &o));
    CHECK_ERROR(c, "knn_graph: .source_example is for eqnn_knn_between");
    CHECK(!eqnn_radius_graph(pos, 1, &o));
    CHECK_ERROR(c, "radius_graph: .source_example");
    CHECK(!eqnn_complete_graph(c, 3, &o));
    CHECK_ERROR(c, "complete_graph: .source_example");
    o.targets = 3;
    CHECK(!eqnn_graph_make(c, 2, s, t, &o));
    CHECK_ERROR(c, "graph_make: .source_example");
}

TEST(kept_graphs_last)
{
    eqnn_ctx *c = test_context();
    int s[] = { 1, 0 }, t[] = { 0, 1 };
    eqnn_graph_opts o = { .targets = 2, .keep = 1 };
    const eqnn_graph *g = eqnn_graph_make(c, 2, s, t, &o);
    for (int step = 0; step < 3; step++) {
        eqnn_reset(c);
        eqnn_tensor *x = eqnn_full(c, 2, 5, step);
        CHECK_NEAR(eqnn_at(eqnn_scatter(eqnn_gather(x, g), g), 1, 4), step, 0);
    }
    CHECK(is_sorted(g) && g->pairs == 1 && g->blocks == 1);
}

/* --- radius graphs --- */

/* By definition: every ordered pair of one example, i = j only as a loop. */
static int brute_force(const eqnn_graph *g, const eqnn_real *x, const int *example, double radius,
                       int loops)
{
    double r = (double)(eqnn_real)radius;
    int e = 0;
    for (int t = 0; t < g->targets; t++) {
        for (int s = 0; s < g->sources; s++) {
            double d2 = 0;
            for (int k = 0; k < 3; k++) {
                eqnn_real d = x[3 * s + k] - x[3 * t + k];
                d2 += (double)d * (double)d;
            }
            int near = s == t ? loops : d2 < r * r && (!example || example[s] == example[t]);
            if (!near) continue;
            if (e == g->edges || g->source[e] != s || g->target[e] != t) return 0;
            e++;
        }
    }
    return e == g->edges;
}

TEST(radius_graph_is_brute_force)
{
    eqnn_ctx *c = test_context();
    int n[] = { 0, 1, 2, 31, 33, 200, 700 };
    double radius[] = { 0.05, 0.3, 0.7, 1.5, 100, INFINITY };
    for (int a = 0; a < 7; a++) {
        for (int b = 0; b < 6; b++) {
            eqnn_tensor *pos = test_normal(c, n[a], 3);
            eqnn_graph_opts o = { .loops = b % 2 };
            const eqnn_graph *g = eqnn_radius_graph(pos, radius[b], &o);
            CHECK(g && is_sorted(g) && blocks_hold(g));
            CHECK(g && brute_force(g, eqnn_data(pos), NULL, radius[b], o.loops));
            if (g && g->edges) CHECK(g->pairs > 0 && pairs_hold(g));
            eqnn_reset(c);
        }
    }
}

/* Shapes that make a grid of cells unhappy: needles, far clusters, one point, a huge offset. */
TEST(radius_graph_in_odd_shapes)
{
    eqnn_ctx *c = test_context();
    int n = 300;
    for (int shape = 0; shape < 6; shape++) {
        eqnn_tensor *u = test_uniform(c, n, 3, 0, 1);
        eqnn_real *x = (eqnn_real *)malloc((size_t)n * 3 * sizeof *x);
        eqnn_read(u, x);
        double radius = 0.2;
        for (int i = 0; i < n; i++) {
            if (shape == 0) x[3 * i] *= 1000, x[3 * i + 1] = 0;
            if (shape == 1 && i % 2) x[3 * i + 2] += (eqnn_real)1e6;
            if (shape == 2) x[3 * i] = x[3 * i + 1] = x[3 * i + 2] = 3;
            if (shape == 3) for (int k = 0; k < 3; k++) x[3 * i + k] += (eqnn_real)1e5;
            if (shape == 4 && i == 7) x[3 * i] = (eqnn_real)3e38, x[3 * i + 1] = (eqnn_real)-3e38;
            if (shape == 5)
                for (int k = 0; k < 3; k++)
                    x[3 * i + k] = (eqnn_real)((int)(x[3 * i + k] * 6) * 0.2);
        }
        eqnn_tensor *pos = eqnn_from(c, n, 3, x);
        const eqnn_graph *g = eqnn_radius_graph(pos, radius, NULL);
        CHECK(g && is_sorted(g) && brute_force(g, x, NULL, radius, 0));
        if (shape == 2) CHECK(g->edges == n * (n - 1)); /* coincident atoms are neighbours */
        if (shape == 4) CHECK(eqnn_radius_graph(pos, 1e-30, NULL) != NULL);
        free(x);
    }
}

/* A lattice point at exactly the radius is outside, whatever the binary fraction of the radius. */
TEST(radius_is_strict)
{
    eqnn_ctx *c = test_context();
    double spacing[] = { 0.1, 0.3, 0.7, 1.1, 2.3 };
    for (int k = 0; k < 5; k++) {
        double x[6] = { 0, 0, 0, spacing[k], 0, 0 };
        eqnn_tensor *pos = eqnn_from_double(c, 2, 3, x);
        CHECK(eqnn_radius_graph(pos, spacing[k], NULL)->edges == 0);
        CHECK(eqnn_radius_graph(pos, spacing[k] * 1.0001, NULL)->edges == 2);
    }
}

TEST(radius_graph_by_example)
{
    eqnn_ctx *c = test_context();
    int example[300];
    for (int i = 0; i < 300; i++)
        example[i] = i < 100 ? i / 20 : 7 + i / 150; /* 0..4, 7, 8; 5 and 6 are empty */
    eqnn_graph_opts o = { .example = example, .examples = 12 };
    eqnn_tensor *pos = test_normal(c, 300, 3);
    const eqnn_graph *g = eqnn_radius_graph(pos, 0.8, &o);
    CHECK(g && g->examples == 12 && brute_force(g, eqnn_data(pos), example, 0.8, 0));
    CHECK(blocks_hold(g) && g->blocks >= 7);
    eqnn_tensor *sum = eqnn_pool_sum(eqnn_full(c, 300, 2, 1), g), *mean = eqnn_pool_mean(pos, g);
    CHECK(eqnn_rows(sum) == 12 && eqnn_rows(mean) == 12);
    CHECK_NEAR(eqnn_at(sum, 4, 1), 20, 0);
    CHECK_NEAR(eqnn_at(sum, 6, 1), 0, 0);
    CHECK_NEAR(eqnn_at(sum, 9, 0), 0, 0);
    CHECK_NEAR(eqnn_at(mean, 6, 2), 0, 0);
}

TEST(radius_graph_refuses)
{
    eqnn_ctx *c = test_context();
    double x[9] = { 0, 0, 0, 1, NAN, 0, 1, 1, INFINITY };
    CHECK(!eqnn_radius_graph(eqnn_from_double(c, 3, 3, x), 2, NULL));
    CHECK_ERROR(c, "row 1 of the positions is not finite");
    CHECK(!eqnn_radius_graph(eqnn_full(c, 3, 2, 0), 2, NULL));
    CHECK_ERROR(c, "needs [n,3]");
    CHECK(!eqnn_radius_graph(eqnn_full(c, 3, 3, 0), NAN, NULL));
    CHECK_ERROR(c, "not positive");
    eqnn_graph_opts o = { .max_edges = 5 };
    CHECK(!eqnn_radius_graph(eqnn_full(c, 3, 3, 0), 2, &o));
    CHECK_ERROR(c, "too many edges");
    o.max_edges = 6;
    CHECK(eqnn_radius_graph(eqnn_full(c, 3, 3, 0), 2, &o)->edges == 6);
}

/* Twice the atoms at the same density take about twice as long (generously: less than four times).
   */
TEST(radius_graph_is_linear)
{
    eqnn_ctx *c = test_context();
    double edges[2];
    for (int k = 0; k < 2; k++) {
        int n = 4000 << k;
        eqnn_tensor *pos = test_uniform(c, n, 3, 0,
                                        cbrt(n / 10.0)); /* ten atoms in a unit of volume */
        const eqnn_graph *g = eqnn_radius_graph(pos, 1, NULL);
        edges[k] = g->edges / (double)n;
        CHECK(is_sorted(g) && pairs_hold(g));
        eqnn_reset(c);
    }
    CHECK_NEAR(edges[0] / edges[1], 1, 0.1);
}

/* --- the k nearest, and all pairs --- */

static double distance2(const eqnn_real *a, const eqnn_real *b, int cols)
{
    double d2 = 0;
    for (int k = 0; k < cols; k++) {
        double d = (double)(eqnn_real)(a[k] - b[k]);
        d2 += d * d;
    }
    return d2;
}

/* By definition: s is a neighbour of t when fewer than k others are nearer, or as near with a
   smaller index. x and y are the same array where a node is not its own neighbour. */
static int knn_brute_force(const eqnn_graph *g, const eqnn_real *x, const int *of_source,
                           const eqnn_real *y, const int *of_target, int cols, int k, int loops)
{
    double *d2 = (double *)malloc(((size_t)g->sources + 1) * sizeof *d2);
    int e = 0, good = is_sorted(g);
    for (int t = 0; t < g->targets && good; t++) {
        for (int s = 0; s < g->sources; s++) {
            int there = (!of_source ? 0 : of_source[s]) == (!of_target ? 0 : of_target[t]);
            d2[s] = !there || (x == y && s == t) ? -1 : distance2(x + s * cols, y + t * cols, cols);
        }
        for (int s = 0; s < g->sources && good; s++) {
            int before = 0, wanted = d2[s] >= 0;
            for (int q = 0; wanted && q < g->sources; q++)
                before += d2[q] >= 0 && (d2[q] < d2[s] || (d2[q] == d2[s] && q < s));
            if (!(wanted && before < k) && !(loops && s == t)) continue;
            good = e < g->edges && g->source[e] == s && g->target[e] == t;
            e++;
        }
    }
    free(d2);
    return good && e == g->edges;
}

/* A sorted list of which example each of n nodes belongs to; some examples are empty. */
static void random_examples(eqnn_ctx *c, int n, int examples, int *example)
{
    eqnn_tensor *u = test_uniform(c, n, 1, 0, examples);
    for (int i = 0; i < n; i++) {
        example[i] = (int)eqnn_at(u, i, 0);
        if (example[i] == examples) example[i]--;
        for (int j = i; j > 0 && example[j] < example[j - 1]; j--) {
            int swap = example[j];
            example[j] = example[j - 1];
            example[j - 1] = swap;
        }
    }
}

TEST(knn_graph_is_brute_force)
{
    eqnn_ctx *c = test_context();
    static const int n[] = { 0, 1, 2, 9, 40, 150 }, k[] = { 1, 3, 8, 39, 1000 };
    int example[150];
    for (int a = 0; a < 6; a++)
        for (int b = 0; b < 5; b++)
            for (int cols = 1; cols <= 5; cols += 2)
                for (int packed = 0; packed < 2; packed++) {
                    eqnn_tensor *pos = test_normal(c, n[a], cols);
                    if (b % 2) /* many ties and coincident points */
                        pos = eqnn_argmax(test_normal(c, n[a], 5));
                    int wide = b % 2 ? 1 : cols;
                    random_examples(c, n[a], 7, example);
                    eqnn_graph_opts o = { .example = packed ? example : NULL,
                                          .examples = packed ? 7 : 0, .loops = (a + b) % 2 };
                    const eqnn_graph *g = eqnn_knn_graph(pos, k[b], &o);
                    const eqnn_real *x = eqnn_data(pos);
                    CHECK(g && g->examples == (packed ? 7 : 1) && g->sources == n[a]);
                    CHECK(g && knn_brute_force(g, x, o.example, x, o.example, wide, k[b], o.loops));
                    CHECK(g && blocks_hold(g));
                    eqnn_reset(c);
                }
}

/* Lattices, coincident points, far clusters, huge offsets and extents. */
TEST(knn_graph_in_odd_shapes)
{
    eqnn_ctx *c = test_context();
    int n = 300;
    for (int shape = 0; shape < 6; shape++) {
        eqnn_real *x = (eqnn_real *)malloc((size_t)n * 3 * sizeof *x);
        eqnn_read(test_uniform(c, n, 3, 0, 1), x);
        for (int i = 0; i < n; i++) {
            if (shape == 0) x[3 * i] *= 1000, x[3 * i + 1] = 0;
            if (shape == 1 && i % 2) x[3 * i + 2] += (eqnn_real)1e6;
            if (shape == 2) x[3 * i] = x[3 * i + 1] = x[3 * i + 2] = 3;
            if (shape == 3) for (int k = 0; k < 3; k++) x[3 * i + k] += (eqnn_real)1e5;
            if (shape == 4 && i % 7 == 0) x[3 * i] = i % 2 ? (eqnn_real)3e38 : (eqnn_real)-3e38;
            if (shape == 5)
                for (int k = 0; k < 3; k++)
                    x[3 * i + k] = (eqnn_real)((int)(x[3 * i + k] * 6) * 0.25);
        }
        for (int k = 1; k < 20; k += 6) {
            const eqnn_graph *g = eqnn_knn_graph(eqnn_from(c, n, 3, x), k, NULL);
            CHECK(g && g->edges == n * k && knn_brute_force(g, x, NULL, x, NULL, 3, k, 0));
        }
        free(x);
    }
}

/* More columns than the distance to a run is summed over, of which few reach far. */
TEST(knn_graph_of_many_columns)
{
    eqnn_ctx *c = test_context();
    for (int cols = 8; cols <= 70; cols += 31) {
        eqnn_tensor *pos = test_normal(c, 500, cols);
        if (cols == 70) /* the last five */
            pos = eqnn_concat(eqnn_scale(eqnn_slice(pos, 0, 65), 0.01), eqnn_slice(pos, 65, 5));
        const eqnn_graph *g = eqnn_knn_graph(pos, 9, NULL);
        const eqnn_real *x = eqnn_data(pos);
        CHECK(g && knn_brute_force(g, x, NULL, x, NULL, cols, 9, 0));
    }
}

TEST(knn_between_is_brute_force)
{
    eqnn_ctx *c = test_context();
    int from[200], to[60];
    for (int trial = 0; trial < 12; trial++) {
        int sources = trial < 3 ? trial : 10 + 16 * trial,
            targets = trial % 4 == 3 ? trial / 4 : 60;
        int packed = trial % 2, k = 1 + 2 * trial;
        eqnn_tensor *a = test_normal(c, sources, 3), *b = test_normal(c, targets, 3);
        random_examples(c, sources, 5, from);
        random_examples(c, targets, 4, to);
        if (targets) to[targets - 1] = 3;
        eqnn_graph_opts o = { .example = packed ? to : NULL,
                              .source_example = packed ? from : NULL };
        if (sources == 0 || targets == 0) o.examples = packed ? 5 : 0;
        const eqnn_graph *g = eqnn_knn_between(a, b, k, &o);
        CHECK(g && g->sources == sources && g->targets == targets);
        CHECK(g &&
              knn_brute_force(g, eqnn_data(a), o.source_example, eqnn_data(b), o.example, 3, k, 0));
        if (g) CHECK(eqnn_rows(eqnn_scatter_mean(eqnn_gather(a, g), g)) == targets);
        eqnn_reset(c);
    }
}

/* Thousands of points, all at one place or not: a search that looked at every pair would be
   noticed. */
TEST(knn_graph_of_many)
{
    eqnn_ctx *c = test_context();
    int n = 50000, k = 6;
    eqnn_graph_opts o = { .keep = 1 };
    const eqnn_graph *g = eqnn_knn_graph(eqnn_full(c, n, 3, 0.1), k, &o);
    int good = g && g->edges == n * k;
    for (int e = 0; good && e < g->edges; e++) { /* the smallest indices but its own */
        int t = g->target[e], place = e - g->first[t];
        good = g->source[e] == place + (t <= place);
    }
    CHECK(good);
    eqnn_tensor *pos = test_normal(c, n, 3);
    g = eqnn_knn_graph(pos, k, NULL);
    CHECK(g && g->edges == n * k && is_sorted(g));
    for (int t = 0; t < n; t += 5000) { /* some rows by definition */
        const eqnn_real *x = eqnn_data(pos);
        double last = 0;
        int nearer = 0;
        for (int e = g->first[t]; e < g->first[t + 1]; e++)
            last = fmax(last, distance2(x + 3 * g->source[e], x + 3 * t, 3));
        for (int s = 0; s < n; s++) nearer += s != t && distance2(x + 3 * s, x + 3 * t, 3) <= last;
        CHECK(nearer == k);
    }
}

TEST(knn_graph_refuses)
{
    eqnn_ctx *c = test_context();
    double x[9] = { 0, 0, 0, 1, NAN, 0, 1, 1, INFINITY }, cell[9] = { 1, 0, 0, 0, 1, 0, 0, 0, 1 };
    int up[3] = { 0, 1, 2 };
    eqnn_tensor *bad = eqnn_from_double(c, 3, 3, x), *pos = eqnn_zeros(c, 3, 3);
    eqnn_graph_opts few = { .max_edges = 5 }, periodic = { .cell = cell }, other = { .sources = 4 };
    eqnn_graph_opts half = { .example = up }, loops = { .loops = 1 };
    CHECK(!eqnn_knn_graph(bad, 2, NULL));
    CHECK_ERROR(c, "knn_graph: row 1 of the positions is not finite (column 1: nan)");
    CHECK(!eqnn_knn_graph(pos, 0, NULL));
    CHECK_ERROR(c, "the 0 nearest");
    CHECK(!eqnn_knn_graph(eqnn_zeros(c, 3, 0), 1, NULL));
    CHECK_ERROR(c, "0 columns");
    CHECK(!eqnn_knn_graph(pos, 2, &few));
    CHECK_ERROR(c, "too many edges: 6, at most 5");
    CHECK(!eqnn_knn_graph(pos, 2, &periodic));
    CHECK_ERROR(c, "eqnn_radius_graph");
    CHECK(!eqnn_knn_graph(pos, 2, &other));
    CHECK_ERROR(c, "the options say 4 and 0");
    CHECK(!eqnn_knn_between(bad, pos, 2, NULL));
    CHECK_ERROR(c, "row 1 of the sources' positions");
    CHECK(!eqnn_knn_between(pos, bad, 2, NULL));
    CHECK_ERROR(c, "row 1 of the targets' positions");
    CHECK(!eqnn_knn_between(pos, eqnn_zeros(c, 3, 2), 2, NULL));
    CHECK_ERROR(c, "equally many columns");
    CHECK(!eqnn_knn_between(pos, pos, 2, &loops));
    CHECK_ERROR(c, "no loops");
    CHECK(!eqnn_knn_between(pos, pos, 2, &half));
    CHECK_ERROR(c, "knn_between, sources: 3 examples but no array");
    CHECK(!eqnn_complete_graph(c, -1, NULL));
    CHECK_ERROR(c, "-1 nodes");
    CHECK(!eqnn_complete_graph(c, 100000, NULL));
    CHECK_ERROR(c, "complete_graph: too many edges");
    CHECK(!eqnn_knn_graph(NULL, 1, NULL) && !eqnn_complete_graph(NULL, 3, NULL));
    CHECK(!eqnn_knn_between(NULL, pos, 1, NULL));
    CHECK_ERROR(c, "a tensor is missing");
}

TEST(complete_graphs)
{
    eqnn_ctx *c = test_context();
    int example[40];
    for (int n = 0; n <= 40; n += n < 2 ? 1 : 19)
        for (int way = 0; way < 4; way++) {
            random_examples(c, n, 6, example);
            eqnn_graph_opts o = { .example = way / 2 ? example : NULL, .examples = way / 2 ? 6 : 0,
                                  .loops = way % 2 };
            const eqnn_graph *g = eqnn_complete_graph(c, n, &o);
            eqnn_tensor *pos = eqnn_zeros(c, n, 3);
            CHECK(g && is_sorted(g) && blocks_hold(g) && g->examples == (way / 2 ? 6 : 1));
            CHECK(g && brute_force(g, eqnn_data(pos), o.example, 1, o.loops));
            if (g && g->edges) CHECK(g->pairs > 0 && pairs_hold(g));
        }
}

/* --- periodic examples --- */

/* Every image of every pair, by loops over -4..4 cells; how many edges there must be. */
static int periodic_count(const eqnn_real *x, int from, int to, const double *cell, double radius)
{
    int count = 0;
    for (int i = from; i < to; i++)
        for (int j = from; j < to; j++)
            for (int q = 0; q < 9 * 9 * 9; q++) {
                int n[3] = { q % 9 - 4, q / 9 % 9 - 4, q / 81 - 4 };
                double d2 = 0;
                for (int k = 0; k < 3; k++) {
                    double d = (double)x[3 * j + k] - (double)x[3 * i + k];
                    for (int a = 0; a < 3; a++) d += n[a] * cell[3 * a + k];
                    d2 += d * d;
                }
                if (d2 < radius * radius && (i != j || n[0] || n[1] || n[2])) count++;
            }
    return count;
}

/* All edges are shorter than the radius and no two are the same. */
static int edges_hold(const eqnn_graph *g, eqnn_tensor *pos, double radius)
{
    eqnn_tensor *length = eqnn_norm(eqnn_edge_vectors(pos, g));
    for (int e = 0; e < g->edges; e++) {
        if (!(eqnn_at(length, e, 0) < radius)) return 0;
        for (int f = e + 1;
             f < g->edges && g->target[f] == g->target[e] && g->source[f] == g->source[e]; f++)
            if (!memcmp(g->shift + 3 * e, g->shift + 3 * f, 3 * sizeof *g->shift)) return 0;
    }
    return 1;
}

TEST(periodic_radius_graph)
{
    eqnn_ctx *c = test_context();
    double cell[18] = { 2, 0.1, 0, 0.3, 1.7, 0.2, -0.4, 0, 2.2, 1, 0, 0, 0, 1.5, 0, 0, 0, 9 };
    int example[10] = { 0, 0, 0, 0, 0, 0, 1, 1, 1, 1 };
    double radius[] = { 0.3, 0.9, 1.8, 3.1 };
    for (int k = 0; k < 4; k++) {
        eqnn_tensor *pos = eqnn_scale(test_normal(c, 10, 3), 0.5);
        eqnn_graph_opts o = { .example = example, .cell = cell };
        const eqnn_graph *g = eqnn_radius_graph(pos, radius[k], &o);
        int count = periodic_count(eqnn_data(pos), 0, 6, cell, radius[k]) +
                    periodic_count(eqnn_data(pos), 6, 10, cell + 9, radius[k]);
        test_note("radius %g: %d edges, %d pairs", radius[k], g ? g->edges : -1, g ? g->pairs : -1);
        CHECK(g && g->edges == count && is_sorted(g) && edges_hold(g, pos, radius[k]));
        if (g && g->edges && k < 3) CHECK(g->pairs == g->edges / 2 && pairs_hold(g));
    }
}

/* Lattice vectors that are zero: a film, a wire and a cluster. Loops over images take long vectors
   there in their place, which need not be normal to the others. */
TEST(partly_periodic)
{
    eqnn_ctx *c = test_context();
    static const double cell[3][9] = { { 2, 0.1, 0.3, 0, 0, 0, 0.4, 0, 2.2 },
                                       { 0, 0, 0, 0.3, 1.7, 0.2, 0, 0, 0 }, { 0 } };
    static const double closed[3][9] = { { 2, 0.1, 0.3, 0, 99, 0, 0.4, 0, 2.2 },
                                         { 99, 0, 0, 0.3, 1.7, 0.2, 0, 0, 99 },
                                         { 99, 0, 0, 0, 99, 0, 0, 0, 99 } };
    for (int k = 0; k < 3; k++) {
        eqnn_tensor *pos = test_normal(c, 10, 3);
        eqnn_graph_opts o = { .cell = cell[k] };
        const eqnn_graph *g = eqnn_radius_graph(pos, 1.8, &o);
        int count = periodic_count(eqnn_data(pos), 0, 10, closed[k], 1.8);
        CHECK(g && g->edges == count && count > 0 && is_sorted(g) && edges_hold(g, pos, 1.8));
    }
}

/* Moving atoms by lattice vectors changes nothing; a cell larger than everything is no cell. */
TEST(periodic_moves)
{
    eqnn_ctx *c = test_context();
    double cell[9] = { 3, 0, 0, 1, 4, 0, 0, 0.5, 5 }, wide[9] = { 99, 0, 0, 0, 99, 0, 0, 0, 99 };
    eqnn_tensor *pos = test_normal(c, 60, 3);
    eqnn_real x[180];
    eqnn_read(pos, x);
    for (int i = 0; i < 60; i++)
        for (int k = 0; k < 3; k++)
            x[3 * i + k] += (eqnn_real)((i % 7 - 3) * cell[k] - i % 3 * cell[6 + k]);
    eqnn_graph_opts o = { .cell = cell };
    const eqnn_graph *g = eqnn_radius_graph(pos, 1.5, &o);
    const eqnn_graph *h = eqnn_radius_graph(eqnn_from(c, 60, 3, x), 1.5, &o);
    CHECK(g->edges == h->edges && !memcmp(g->source, h->source, (size_t)g->edges * sizeof(int)));
    o.cell = wide;
    g = eqnn_radius_graph(pos, 1.5, &o);
    h = eqnn_radius_graph(pos, 1.5, NULL);
    CHECK(g->edges == h->edges && !memcmp(g->source, h->source, (size_t)g->edges * sizeof(int)));
    CHECK(g->shift && g->shift[0] == 0);
    memcpy(cell, cell + 3, 3 * sizeof *cell);
    o.cell = cell;
    CHECK(!eqnn_radius_graph(pos, 1.5, &o));
    CHECK_ERROR(c, "has no volume");
    CHECK(!eqnn_radius_graph(pos, INFINITY, &o));
    CHECK_ERROR(c, "more than 1000");
}

/* Edges between the same atoms stand in the order of the larger one's images. */
TEST(order_of_images)
{
    static const double cell[9] = { 3, 0, 0, 0, 4, 0, 0, 0, 5 };
    eqnn_ctx *c = test_context();
    eqnn_graph_opts o = { .cell = cell };
    const eqnn_graph *g = eqnn_radius_graph(test_normal(c, 9, 3), 6.5, &o);
    int runs = 0;
    for (int e = 1; e < g->edges; e++) {
        const eqnn_real *a = g->shift + 3 * (e - 1), *b = a + 3;
        int t = g->target[e], s = g->source[e], k = 0;
        if (t == s || g->target[e - 1] != t || g->source[e - 1] != s) continue;
        while (k < 2 && a[k] == b[k]) k++;
        CHECK(t < s ? a[k] < b[k] : b[k] < a[k]);
        runs++;
    }
    CHECK(runs > 1000);
}

/* --- sums over edges --- */

static const eqnn_graph *small_graph(eqnn_ctx *c)
{
    static const int s[] = { 0, 3, 2, 2, 1 }, t[] = { 1, 1, 1, 0, 2 };
    eqnn_graph_opts o = { .sources = 4, .targets = 5, .keep = 1 };
    return eqnn_graph_make(c, 5, s, t, &o);
}

static eqnn_tensor *all_sums(eqnn_tensor *const *x, int n, void *user)
{
    const eqnn_graph *g = (const eqnn_graph *)user;
    eqnn_tensor *e = eqnn_mul(eqnn_gather(x[0], g), eqnn_gather_target(x[1], g));
    eqnn_tensor *a = eqnn_edge_softmax(e, g), *parts[3];
    (void)n;
    parts[0] = eqnn_scatter(eqnn_mul(a, e), g);
    parts[1] = eqnn_scatter_mean(eqnn_square(e), g);
    parts[2] = eqnn_square(x[1]);
    eqnn_tensor *y = eqnn_concat_n(parts, 3);
    return eqnn_stack((eqnn_tensor *[]){ eqnn_pool_sum(y, g), eqnn_pool_mean(eqnn_tanh(y), g) }, 2);
}

TEST(sums_over_edges)
{
    eqnn_ctx *c = test_context();
    const eqnn_graph *g = small_graph(c);
    eqnn_tensor *x = test_normal(c, 4, 3), *y = test_normal(c, 5, 3);
    eqnn_tensor *s = eqnn_scatter(eqnn_gather(x, g), g),
                *m = eqnn_scatter_mean(eqnn_gather(x, g), g);
    for (int k = 0; k < 3; k++) {
        double sum = eqnn_at(x, 0, k) + eqnn_at(x, 3, k) + eqnn_at(x, 2, k);
        CHECK_NEAR(eqnn_at(s, 1, k), sum, test_eps(1e-15, 1e-6));
        CHECK_NEAR(eqnn_at(m, 1, k), sum / 3, test_eps(1e-15, 1e-6));
        CHECK_NEAR(eqnn_at(m, 4, k), 0, 0); /* nothing enters node 4 */
        CHECK_NEAR(eqnn_at(eqnn_gather_target(y, g), 4, k), eqnn_at(y, 2, k), 0);
    }
    CHECK_NEAR(eqnn_at(eqnn_inverse_degree(g), 1, 0), 1.0 / 3, test_eps(1e-16, 1e-7));
    CHECK_NEAR(eqnn_at(eqnn_inverse_degree(g), 4, 0), 1, 0);
    eqnn_tensor *in[2] = { x, y };
    CHECK_DERIVATIVES_OF(all_sums, in, 2, (void *)g, 2);
}

TEST(softmax_over_edges)
{
    eqnn_ctx *c = test_context();
    const eqnn_graph *g = small_graph(c);
    eqnn_tensor *a = eqnn_edge_softmax(eqnn_scale(test_normal(c, 5, 2), 1000), g);
    eqnn_tensor *sum = eqnn_scatter(a, g);
    for (int k = 0; k < 2; k++) {
        CHECK_NEAR(eqnn_at(sum, 1, k), 1, test_eps(1e-15, 1e-6));
        CHECK_NEAR(eqnn_at(sum, 3, k), 0, 0);
    }
}

static eqnn_tensor *vectors(eqnn_tensor *const *x, int n, void *user)
{
    (void)n;
    return eqnn_as(eqnn_edge_vectors(x[0], (const eqnn_graph *)user), NULL);
}

TEST(edge_vectors)
{
    eqnn_ctx *c = test_context();
    int s[] = { 1, 0 }, t[] = { 0, 1 };
    double shift[] = { 10, 0, 0, -10, 0, 0 };
    eqnn_graph_opts o = { .targets = 3, .shift = shift };
    const eqnn_graph *g = eqnn_graph_make(c, 2, s, t, &o);
    eqnn_tensor *pos = test_normal(c, 3, 3), *r = eqnn_edge_vectors(pos, g);
    CHECK_NEAR(eqnn_at(r, 0, 0), eqnn_at(pos, 1, 0) - eqnn_at(pos, 0, 0) + 10,
               test_eps(1e-14, 1e-5));
    CHECK_NEAR(eqnn_at(r, 1, 1), eqnn_at(pos, 0, 1) - eqnn_at(pos, 1, 1), test_eps(1e-14, 1e-6));
    CHECK_TEXT(eqnn_label_of(r)->name, "1x1o");
    CHECK_DERIVATIVES_OF(vectors, &pos, 1, (void *)g, 2);
}

/* Rows are counted against the graph; nothing is stretched. */
TEST(counts_are_checked)
{
    eqnn_ctx *c = test_context();
    const eqnn_graph *g = small_graph(c);
    eqnn_tensor *one = eqnn_full(c, 1, 3, 1);
    CHECK(!eqnn_gather(one, g));
    CHECK_ERROR(c, "[1,3] for a graph of 4 sources");
    CHECK(!eqnn_gather_target(one, g));
    CHECK_ERROR(c, "5 targets");
    CHECK(!eqnn_scatter(one, g));
    CHECK_ERROR(c, "5 edges");
    CHECK(!eqnn_edge_softmax(one, g));
    CHECK_ERROR(c, "5 edges");
    CHECK(!eqnn_pool_sum(one, g));
    CHECK_ERROR(c, "5 targets");
    CHECK(!eqnn_edge_vectors(eqnn_full(c, 4, 3, 1), g));
    CHECK_ERROR(c, "same nodes");
    CHECK(!eqnn_scatter(one, NULL));
    CHECK_ERROR(c, "no graph");
}

TEST(empty_graphs)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *none = eqnn_full(c, 0, 3, 0);
    const eqnn_graph *g = eqnn_radius_graph(none, 1, NULL);
    CHECK(g && g->edges == 0 && g->targets == 0 && g->examples == 1 && is_sorted(g));
    eqnn_tensor *r = eqnn_edge_vectors(none, g), *s = eqnn_scatter(r, g);
    CHECK(eqnn_rows(s) == 0 && eqnn_cols(s) == 3);
    CHECK(eqnn_rows(eqnn_scatter_mean(r, g)) == 0);
    CHECK(eqnn_rows(eqnn_edge_softmax(eqnn_norm(r), g)) == 0);
    eqnn_tensor *p = eqnn_pool_sum(s, g);
    CHECK(eqnn_rows(p) == 1 && eqnn_at(p, 0, 2) == 0);
    CHECK(eqnn_at(eqnn_pool_mean(s, g), 0, 1) == 0);
    eqnn_tensor *one = eqnn_full(c, 1, 3, 2);
    g = eqnn_radius_graph(one, 1, NULL);
    s = eqnn_scatter(eqnn_edge_vectors(one, g), g);
    CHECK(eqnn_rows(s) == 1 && eqnn_at(s, 0, 0) == 0 && g->blocks == 1);
    CHECK_OK(c);
}

/* The same graph is made without asking the system for memory again. */
TEST(steady_state_allocates_nothing)
{
    eqnn_ctx *c = test_context();
    size_t reserved = 0;
    for (int step = 0; step < 6; step++) {
        eqnn_tensor *pos = eqnn_normal(c, "pos", 100, 3);
        eqnn_scatter(eqnn_edge_vectors(pos, eqnn_radius_graph(pos, 10, NULL)),
                     eqnn_radius_graph(pos, 10, NULL));
        if (step == 2) reserved = eqnn_memory_use(c).step_reserved;
        eqnn_reset(c);
    }
    CHECK(eqnn_memory_use(c).step_reserved == reserved);
}

TEST_MAIN
