/* lesson8_lie_group.c - a continuous group of your own: observers that move

   cc -O2 -I. examples/lesson8_lie_group.c -lm -o lesson8 && ./lesson8

   YOU WILL SEE   seven flashes of light, each a time t and a place x (in light seconds), as
                  observers of several speeds note them. Of two networks one reads the notes, and
                  every observer gets another answer; the other reads what pairs of flashes have
                  in common, and all observers agree. The last line: by how much each disagrees.
   IT TEACHES     a Lie group is given by three functions: exp makes elements of coordinates, log
                  makes coordinates of elements, and lift finds the element that carries a fixed
                  origin to a point. Then u_j^-1 u_i, the way from point j to point i, is the same
                  for every observer v, as (v u_j)^-1 (v u_i) = u_j^-1 u_i; so is what tells the
                  origins of points apart. Any network of these two is invariant, whatever its
                  weights: this is how LieConv and LieTransformer work (arXiv:2002.12880,
                  arXiv:2012.10885). The group here is that of boosts, SO(1,1): to an observer of
                  speed v, rapidity a = atanh(v), an event (t, x) is at

                      t' = t cosh a - x sinh a,     x' = x cosh a - t sinh a. */
#define EQNN_IMPLEMENTATION
#include "eqnn_groups.h"
#include <math.h>

enum { EVENTS = 7 };

/* --- 1. the group, in forty lines: elements are matrices, row by row --- */

/* [n,1] rapidities -> [n,4]: cosh a, sinh a, sinh a, cosh a */
static eqnn_tensor *boost_exp(const eqnn_lie *g, eqnn_tensor *a)
{
    (void)g;
    eqnn_tensor *up = eqnn_scale(eqnn_exp(a), 0.5), *down = eqnn_scale(eqnn_exp(eqnn_neg(a)), 0.5);
    eqnn_tensor *c = eqnn_add(up, down), *s = eqnn_sub(up, down), *m[4] = { c, s, s, c };
    return eqnn_concat_n(m, 4);
}

/* cosh a + sinh a = e^a */
static eqnn_tensor *boost_log(const eqnn_lie *g, eqnn_tensor *u)
{
    (void)g;
    return eqnn_log(eqnn_add(eqnn_slice(u, 0, 1), eqnn_slice(u, 1, 1)));
}

/* The flash (t, x) is the one at (q, 0), q = sqrt(t^2 - x^2) its proper time, as another observer
   notes it: e^(2a) = (t + x)/(t - x). No other boost carries (q, 0) there: no random numbers. */
static eqnn_tensor *boost_lift(const eqnn_lie *g, eqnn_tensor *event, eqnn_tensor *draws,
                               eqnn_tensor **q)
{
    (void)draws;
    eqnn_tensor *t = eqnn_slice(event, 0, 1), *x = eqnn_slice(event, 1, 1);
    eqnn_tensor *sum = eqnn_add(t, x), *difference = eqnn_sub(t, x);
    *q = eqnn_sqrt(eqnn_mul(sum, difference));
    return boost_exp(g, eqnn_scale(eqnn_log(eqnn_div(sum, difference)), 0.5));
}

static const eqnn_lie *boosts(eqnn_ctx *c)
{
    return eqnn_lie_of(c, "boosts", &(eqnn_lie_opts){ .point_dim = 2, .lie_dim = 1, .q_dim = 1,
                                                      .exp = boost_exp, .log = boost_log,
                                                      .lift = boost_lift });
}

/* --- 2. two networks: of pairs of events, and of the numbers as they are noted --- */

static eqnn_tensor *of_pairs(const eqnn_lie *g, eqnn_tensor *events)
{
    eqnn_tensor *u, *q;
    const eqnn_graph *all = eqnn_complete_graph(eqnn_context(events), EVENTS, NULL);
    if (!eqnn_lie_lift(g, events, "lift", 1, &u, &q)) return NULL;
    eqnn_tensor *pairs = eqnn_lie_pairs(g, u, q, all); /* [edges,3]: rapidity between, both q */
    return eqnn_sum(eqnn_scatter_mean(eqnn_mlp(pairs, "pairs", "32,32,1", NULL), all));
}

static eqnn_tensor *of_notes(eqnn_tensor *events)
{
    return eqnn_sum(eqnn_mlp(events, "notes", "32,32,1", NULL));
}

/* --- 3. what observers find --- */

/* Flashes that come later than light from (t, x) = (0, 0): t > |x|. */
static eqnn_tensor *flashes(eqnn_ctx *c)
{
    eqnn_tensor *x = eqnn_normal(c, "places", EVENTS, 1);
    eqnn_tensor *later = eqnn_shift(eqnn_uniform(c, "later", EVENTS, 1), 0.2);
    return eqnn_concat(eqnn_add(eqnn_abs(x), later), x);
}

int main(void)
{
    const double speeds[5] = { 0, 0.3, -0.5, 0.8, 0.95 };
    eqnn_ctx *c = eqnn_make(NULL);
    const eqnn_lie *g = boosts(c);
    eqnn_tensor *events = flashes(c);
    double first[2] = { 0, 0 }, error[2] = { 0, 0 };
    printf("speed of the observer   network of pairs   network of notes\n");
    for (int k = 0; k < 5; k++) {
        eqnn_tensor *a = eqnn_full(c, 1, 1, -atanh(speeds[k]));
        eqnn_tensor *seen = eqnn_lie_act(g, eqnn_lie_exp(g, a), events);
        double y[2] = { eqnn_value(of_pairs(g, seen)), eqnn_value(of_notes(seen)) };
        printf("%21.2f   %16.6f   %16.6f\n", speeds[k], y[0], y[1]);
        for (int i = 0; i < 2; i++) {
            if (k == 0) first[i] = y[i];
            error[i] = fmax(error[i], fabs(y[i] - first[i]) / fabs(first[i]));
        }
    }
    printf("\nobservers disagree by %.1e of pairs, by %.1e of notes\n", error[0], error[1]);
    if (eqnn_error(c)) printf("%s\n", eqnn_error(c));
    int failed = eqnn_error(c) != NULL || !(error[0] < 1e-3);
    eqnn_free(c);
    return failed;
}
