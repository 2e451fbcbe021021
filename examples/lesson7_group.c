/* lesson7_group.c - another group: your own, in forty lines

   cc -O2 -I. examples/lesson7_group.c -lm -o lesson7 && ./lesson7

   YOU WILL SEE   a necklace of six beads. Which layers treat it alike however it is turned and
                  turned over? Six numbers go in and six come out, 36 weights; four are free. The
                  last line says how far the layer made of them is from commuting with the group,
                  and how far one with weights of no pattern is.
   IT TEACHES     a group is given by a few elements that make up all others: here a turn by one
                  bead and turning over. What commutes with these two commutes with all twelve.
                  The layers that do are a space, and eqnn finds its basis: sums of what each bead
                  says with equal weights for beads at equal distance. Nothing had to be told but
                  the two matrices. For rotations, which have no smallest step, there are Lie
                  generators beside them, and names for the common groups: "SO(3)", "O(1,3)". */
#define EQNN_IMPLEMENTATION
#include "eqnn_groups.h"
#include <math.h>
#include <string.h>

enum { BEADS = 6, MOST = 36 };

/* --- 1. the group: two matrices --- */

static const eqnn_group *necklace(eqnn_ctx *c)
{
    double h[2][BEADS][BEADS];
    memset(h, 0, sizeof h);
    for (int i = 0; i < BEADS; i++) {
        h[0][i][(i + 1) % BEADS] = 1;      /* bead i + 1 is now where bead i was   */
        h[1][i][BEADS - 1 - i] = 1;        /* the first is the last, and so on     */
    }
    return eqnn_group_of(c, "necklace", &(eqnn_group_opts){ .dim = BEADS, .discrete = 2,
                                                            .generators = &h[0][0][0] });
}

/* --- 2. all maps from V, one number a bead, to V, that commute with it --- */

static int show_basis(const eqnn_rep *maps, double *Q)
{
    int dim = (int)eqnn_basis_dim(maps);
    if (dim < 1 || dim > BEADS || !eqnn_basis_dense(maps, Q)) return 0;
    printf("%d of %d weights are free. The patterns (entries that are not zero are equal):\n\n",
           dim, eqnn_rep_size(maps));
    for (int i = 0; i < BEADS; i++) {
        for (int k = 0; k < dim; k++) {
            printf("   ");
            for (int j = 0; j < BEADS; j++)
                printf("%s", fabs(Q[k * MOST + i * BEADS + j]) > 1e-9 ? " #" : " .");
        }
        printf("\n");
    }
    return dim;
}

/* --- 3. a layer with such weights, and one with any --- */

typedef struct layer { const eqnn_rep *rep; eqnn_tensor *W; } layer;

/* y = tanh(x W^T): tanh bead by bead is equivariant too, since the group permutes beads. */
static eqnn_tensor *apply(eqnn_tensor *const *x, int n, void *user)
{
    const layer *l = (const layer *)user;
    (void)n;
    eqnn_tensor *y = eqnn_matmul(eqnn_to_rep(x[0], l->rep), eqnn_transpose(l->W));
    return eqnn_tanh(eqnn_from_rep(y, l->rep));
}

/* sum over the basis of w_k Q_k, w random; or random numbers all over */
static eqnn_tensor *weights(eqnn_ctx *c, const double *Q, int dim)
{
    double w[MOST], W[MOST];
    eqnn_random(c, "weights", 1, MOST, w);
    for (int i = 0; i < MOST && dim; i++) {
        W[i] = 0;
        for (int k = 0; k < dim; k++) W[i] += w[k] * Q[k * MOST + i];
    }
    return eqnn_from_double(c, BEADS, BEADS, dim ? W : w);
}

static double error_of(eqnn_ctx *c, const eqnn_rep *V, const double *Q, int dim)
{
    layer l = { V, weights(c, Q, dim) };
    eqnn_tensor *x = eqnn_from_rep(eqnn_normal(c, "necklaces", 100, BEADS), V);
    return eqnn_rep_check(apply, &x, 1, &l, 12, NULL);
}

int main(void)
{
    double Q[BEADS * MOST];
    eqnn_ctx *c = eqnn_make(NULL);
    const eqnn_group *g = necklace(c);
    const eqnn_rep *V = eqnn_rep_vector(g), *maps = eqnn_rep_make(c, "V >> V", g);
    int dim = show_basis(maps, Q);
    if (dim) {
        double with = error_of(c, V, Q, dim), without = error_of(c, V, Q, 0);
        printf("\nerror under random elements of the group: %.1e with these weights, %.1e with "
               "any\n", with, without);
    }
    if (eqnn_error(c)) printf("%s\n", eqnn_error(c));
    int failed = eqnn_error(c) != NULL;
    eqnn_free(c);
    return failed;
}
