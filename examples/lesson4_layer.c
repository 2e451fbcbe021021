/* lesson4_layer.c - one equivariant layer, first by hand, then in one line

   cc -O2 -I. examples/lesson4_layer.c -lm -o lesson4 && ./lesson4

   YOU WILL SEE   a cloud of atoms with features pass through three layers, and for each the
                  largest error of f(R x) = R f(x) over random rotations and mirrors: a layer that
                  treats vectors as mere numbers fails by the size of f itself; the one built by
                  hand and the library's are right to rounding. Then the sentence with which the
                  library refuses an operation that would break the symmetry.
   IT TEACHES     a message is the neighbour's features times the harmonics of the direction to it,
                  with weights that depend on the distance only. Distances do not turn, harmonics
                  turn as their label says, products and sums respect that: nothing else is needed.
                  Whatever the weights are, the layer is equivariant; training only chooses among
                  equivariant layers. */
#define EQNN_IMPLEMENTATION
#include "eqnn.h"
#include <math.h>

enum { ATOMS = 12 };
static const char *const irreps = "8x0e+4x1o"; /* of the features: eight scalars, four vectors */
static const double radius = 2.5;

/* --- 1. what every layer starts from: edges, their harmonics and their lengths --- */

typedef struct edges {
    const eqnn_graph *g;
    eqnn_tensor *Y;       /* [edges, 1x0e+1x1o+1x2e] directions              */
    eqnn_tensor *lengths; /* [edges, 10] each length as ten radial functions */
} edges;

static edges edges_of(eqnn_tensor *pos)
{
    edges e = { .g = eqnn_radius_graph(pos, radius, NULL) };
    eqnn_tensor *r = eqnn_edge_vectors(pos, e.g); /* pos[source] - pos[target]: shifts drop out */
    e.Y = eqnn_spherical_harmonics(r, 2, &(eqnn_harmonics_opts){ .normalize = 1 });
    e.lengths = eqnn_radial_basis(eqnn_norm(r), 10, radius, NULL);
    return e;
}

/* --- 2. a layer by hand ---

       y_i = mix( 1/sqrt(k)  sum over neighbours j of  w(|r_ij|) . (x_j times Y(r_ij)) )

   Feature l1 of the neighbour times harmonic l2 has parts of degree |l1-l2| to l1+l2, one "path"
   each; w is a number for every path and channel, made by a small network of the length. */
static eqnn_tensor *by_hand(eqnn_tensor *const *x, int n, void *user)
{
    (void)n, (void)user;
    edges e = edges_of(x[0]);
    eqnn_ctx *c = eqnn_context(x[0]);
    const eqnn_product *p = eqnn_product_channelwise(c, eqnn_irreps_make(c, irreps),
                                                     eqnn_label_of(e.Y), NULL, NULL);
    int weights = eqnn_product_weights(p);
    eqnn_tensor *w = eqnn_fc(e.lengths, "radial", eqnn_format(c, "16,%d", weights), NULL);
    eqnn_tensor *messages = eqnn_tensor_product(eqnn_gather(x[1], e.g), e.Y, w, p);
    eqnn_tensor *sum = eqnn_scale(eqnn_scatter(messages, e.g), 1 / sqrt(6)); /* about 6 come in */
    return eqnn_irreps_linear(sum, "mix", irreps, NULL);
}

/* How far the sum is from the library's form, which makes and adds a message in one pass. */
static double difference_from_fused(eqnn_tensor *const *x)
{
    edges e = edges_of(x[0]);
    eqnn_ctx *c = eqnn_context(x[0]);
    const eqnn_product *p = eqnn_product_channelwise(c, eqnn_label_of(x[1]), eqnn_label_of(e.Y),
                                                     NULL, NULL);
    eqnn_tensor *w = eqnn_normal(c, "w", eqnn_rows(e.Y), eqnn_product_weights(p));
    eqnn_tensor *steps = eqnn_tensor_product(eqnn_gather(x[1], e.g), e.Y, w, p);
    eqnn_tensor *fused = eqnn_message(x[1], e.Y, w, NULL, p, e.g);
    eqnn_tensor *d = eqnn_abs(eqnn_as(eqnn_sub(eqnn_scatter(steps, e.g), fused), NULL));
    return eqnn_value(eqnn_mean(d));
}

/* --- 3. the same idea in one line, with gates as nonlinearity --- */

static eqnn_tensor *in_one_line(eqnn_tensor *const *x, int n, void *user)
{
    (void)n, (void)user;
    edges e = edges_of(x[0]);
    return eqnn_gated_conv(x[1], NULL, e.Y, e.lengths, e.g, "conv", irreps, NULL);
}

/* --- 4. a layer that knows nothing: takes labels off, and claims them again at the end --- */

static eqnn_tensor *knows_nothing(eqnn_tensor *const *x, int n, void *user)
{
    (void)n, (void)user;
    edges e = edges_of(x[0]);
    eqnn_tensor *r = eqnn_as(eqnn_edge_vectors(x[0], e.g), NULL);
    eqnn_tensor *message = eqnn_concat(r, eqnn_as(eqnn_gather(x[1], e.g), NULL));
    message = eqnn_mlp(message, "ordinary", "32,20", NULL);
    return eqnn_as(eqnn_scatter(message, e.g), eqnn_label_of(x[1]));
}

static double show(const char *title, eqnn_function layer, eqnn_tensor *const *x)
{
    double error = eqnn_check_equivariance(layer, x, 2, NULL, 20, NULL);
    printf("    %-32s %.1e\n", title, error);
    return error;
}

int main(void)
{
    eqnn_ctx *c = eqnn_make(NULL);
    eqnn_tensor *pos = eqnn_as(eqnn_normal(c, "pos", ATOMS, 3), eqnn_irreps_make(c, "1x1o"));
    eqnn_tensor *h = eqnn_as(eqnn_normal(c, "h", ATOMS, 8 + 4 * 3), eqnn_irreps_make(c, irreps));
    eqnn_tensor *x[2] = { pos, h };

    edges e = edges_of(pos);
    printf("%d atoms, %d edges, features %s, harmonics %s\n", ATOMS, e.g ? e.g->edges : 0, irreps,
           e.Y ? eqnn_label_of(e.Y)->name : "");
    printf("step by step and in one pass: the sums differ by %.1e\n", difference_from_fused(x));

    printf("\nlargest |f(R x) - R f(x)| / |f| over 20 random rotations and mirrors R\n");
    double before = show("vectors as mere numbers", knows_nothing, x);
    double after = show("by hand", by_hand, x);
    double library = show("eqnn_gated_conv", in_one_line, x);

    /* A vector has no "each component through a curve": that would depend on where x points. */
    int good = !eqnn_error(c) && before > 1e-2 && after < 1e-4 && library < 1e-4;
    int refused = !eqnn_silu(h);
    if (good && refused) printf("\nsilu of the features is refused:\n    %s\n", eqnn_error(c));
    else if (eqnn_error(c)) printf("error: %s\n", eqnn_error(c));
    eqnn_free(c);
    return good && refused ? 0 : 1;
}
