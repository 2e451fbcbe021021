/* lifts.h - a test for networks whose lifts are drawn at random: their outputs have a law that the
   group does not change */
#ifndef LIFTS_H
#define LIFTS_H

#include "test.h"
#include "../eqnn_groups.h"

/* Weights three times as large as at first: lifts and convolutions become of some weight. */
static void lifts_louder(eqnn_ctx *c)
{
    for (int i = 0; i < eqnn_parameter_count(c); i++) {
        eqnn_tensor *w = eqnn_parameter_at(c, i);
        int n = eqnn_rows(w) * eqnn_cols(w);
        double *v = (double *)calloc((size_t)n + 1, sizeof *v);
        for (int k = 0; v && k < n; k++) v[k] = 3 * (double)eqnn_data(w)[k];
        if (v) eqnn_set(w, v);
        free(v);
    }
}

/* Were two samples, columns a and b of one length n, drawn from one law? z[0], of their means, and
   z[1], of their variances m2, are N(0,1) then, nearly: a mean has the variance m2 / n, a variance
   (m4 - m2^2) / n. The deviation of a or infinity where something is not a number. */
static double lifts_laws(const eqnn_tensor *a, const eqnn_tensor *b, double z[2])
{
    const eqnn_tensor *x[2] = { a, b };
    double mean[2] = { 0, 0 }, m2[2] = { 0, 0 }, m4[2] = { 0, 0 };
    int n = eqnn_rows(a);
    z[0] = z[1] = INFINITY;
    for (int k = 0; k < 2; k++) {
        for (int i = 0; i < n; i++) mean[k] += eqnn_at(x[k], i, 0) / n;
        for (int i = 0; i < n; i++) {
            double square = pow(eqnn_at(x[k], i, 0) - mean[k], 2);
            m2[k] += square / n;
            m4[k] += square * square / n;
        }
    }
    if (!(m2[0] + m2[1] < INFINITY) || n < 2 || eqnn_rows(b) != n) return INFINITY;
    z[0] = (mean[0] - mean[1]) / sqrt((m2[0] + m2[1]) / n);
    z[1] = (m2[0] - m2[1]) / sqrt((m4[0] - m2[0] * m2[0] + m4[1] - m2[1] * m2[1]) / n);
    return sqrt(m2[0]);
}

/* Points x [n,d] so many times over, each with lifts of its own: an example each. biased: draws
   that are not spread evenly. */
typedef struct lifts { eqnn_tensor *u, *q, *values; const eqnn_graph *graph; } lifts;

static lifts lifts_many(const eqnn_lie *g, eqnn_tensor *x, eqnn_tensor *values, int copies,
                        int biased)
{
    enum { SAMPLES = 2 };
    eqnn_ctx *c = eqnn_context(x);
    int n = eqnn_rows(x), rows = n * copies * SAMPLES;
    int *point = (int *)calloc((size_t)rows + 1, sizeof *point);
    int *example = (int *)calloc((size_t)rows + 1, sizeof *example);
    eqnn_graph_opts o;
    lifts l;
    memset(&l, 0, sizeof l);
    memset(&o, 0, sizeof o);
    for (int i = 0; point && example && i < rows; i++) {
        example[i] = i / (n * SAMPLES);
        point[i] = i / SAMPLES % n;
    }
    o.loops = 1, o.example = example, o.examples = copies;
    l.graph = eqnn_complete_graph(c, rows, &o);
    l.values = eqnn_take(values, eqnn_ints_make(c, rows, point, n, 0));
    for (int i = 0; point && i < n * copies; i++) point[i] = i % n;
    x = eqnn_take(x, eqnn_ints_make(c, n * copies, point, n, 0));
    if (biased) {
        int normal = eqnn_lie_draws(g) > 1;
        eqnn_tensor *draws = normal ? eqnn_normal(c, "biased", rows, eqnn_lie_draws(g))
                                    : eqnn_uniform(c, "biased", rows, 1);
        draws = normal ? eqnn_shift(eqnn_scale(draws, 0.1), 1) : eqnn_scale(draws, 0.5);
        eqnn_lie_lift_given(g, x, draws, SAMPLES, &l.u, &l.q);
    } else {
        eqnn_lie_lift(g, x, "lift", SAMPLES, &l.u, &l.q);
    }
    free(point);
    free(example);
    return l;
}

/* Where lifts are drawn at random, the outputs of a network f are random numbers, and their law is
   what no element of the group changes: COPIES outputs of points as they are and as many of them
   moved, means and variances. Of one such comparison |z| > 4 comes once in 16,000 times, of the
   twelve once in 1,300; with draws that are not spread evenly it is the rule. f gives [lifts,1]. */
typedef eqnn_tensor *(*lifts_network)(const eqnn_lie *g, const lifts *l);

static void lifts_check(lifts_network f)
{
    static const char *const groups[] = { "SE(2)", "SO(3)", "SE(3)" };
    enum { N = 4, COPIES = 600 };
    for (int k = 0; k < 3; k++) {
        eqnn_ctx *c = test_context();
        const eqnn_lie *g = eqnn_lie_make(c, groups[k]);
        eqnn_tensor *x[2], *y[2], *values = eqnn_keep(test_normal(c, N, 3));
        x[0] = eqnn_keep(test_normal(c, N, eqnn_lie_point_dim(g)));
        eqnn_tensor *h = eqnn_lie_exp(g, test_uniform(c, 1, eqnn_lie_dim(g), 1, 2));
        x[1] = eqnn_keep(eqnn_lie_act(g, h, x[0]));
        double z[2][2], spread = 0;
        eqnn_recording(c, 0);
        lifts one = lifts_many(g, x[0], values, 1, 0);
        f(g, &one); /* makes the weights */
        lifts_louder(c);
        for (int biased = 0; biased < 2; biased++) {
            for (int i = 0; i < 2; i++) {
                lifts l = lifts_many(g, x[i], values, COPIES, biased);
                y[i] = eqnn_keep(f(g, &l));
                eqnn_reset(c);
            }
            spread = lifts_laws(y[0], y[1], z[biased]);
        }
        test_note("%s: deviation %.1e, z %.1f and %.1f, of uneven lifts %.1f and %.1f", groups[k],
                  spread, z[0][0], z[0][1], z[1][0], z[1][1]);
        CHECK(fabs(z[0][0]) < 4 && fabs(z[0][1]) < 4);
        CHECK(fabs(z[1][0]) > 4 || fabs(z[1][1]) > 4);
        CHECK(spread > 1e-4 && spread < INFINITY);
        CHECK_OK(c);
    }
}

#endif
