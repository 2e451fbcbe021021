/* ddp_mpi.c - one network, trained by several processes, on one machine or many

   mpicc -O2 -I. examples/ddp_mpi.c -lm -o ddp_mpi && mpirun -n 2 ./ddp_mpi      (or: make ddp)

   YOU WILL SEE   training, an error, and a number made of all weights, which is the same on every
                  rank. With --exact it is also the same for every number of ranks.
   IT TEACHES     a context per process, and a callback of ten lines that puts the mean over all
                  ranks in the place of the gradient; ddp.h, which says how ranks stay alike, knows
                  nothing else of it. All gradients lie in a few slabs, here two, so that a step
                  takes as few calls of MPI_Allreduce.

   Sums of rounded numbers depend on their order, so one rank and two agree to rounding only. With
   --exact a batch is cut into pieces of 4 systems, whatever the ranks are; a rank computes the
   gradient of each of its pieces by itself and keeps them all. Then the sum travels: a rank takes
   what the one before sent, adds its pieces one by one and sends it on; the last tells all. So the
   pieces are always added in the same order. What it costs: small pieces instead of large shares
   (here a step on one rank takes about 1.4 times as long); the memory of a gradient for each piece
   of a rank; and the ranks add one after another, as many messages of all weights in a row as there
   are ranks, while the mean of all takes the time of about two. Good to find out whether two runs
   are the same, or why not; too slow for many ranks. It does without the callback. */
#define EQNN_IMPLEMENTATION
#include "ddp.h"
#include <limits.h>

/* --- the mean over ranks, to rounding --- */

static MPI_Datatype real_type(void)
{
    return sizeof(eqnn_real) == sizeof(double) ? MPI_DOUBLE : MPI_FLOAT;
}

/* The callback. MPI counts by int: a slab of more than 2^30 numbers goes in parts. MPI promises
   that all ranks get the same bits. */
static int mean_over_ranks(void *user, eqnn_real *values, size_t count)
{
    const ddp *d = user;
    const size_t most = (size_t)1 << 30;
    for (size_t i = 0; i < count; i += most) {
        int n = (int)(count - i < most ? count - i : most);
        if (MPI_Allreduce(MPI_IN_PLACE, values + i, n, real_type(), MPI_SUM, MPI_COMM_WORLD))
            return 0;
    }
    for (size_t i = 0; i < count; i++) values[i] /= (eqnn_real)d->ranks;
    return 1;
}

/* --- the sum in the order of the systems, to the bit --- */

enum { PIECE = 4 };
typedef struct exact {
    int size;                 /* numbers of a gradient                 */
    eqnn_real *piece, *sum;   /* [pieces of this rank][size], [size]   */
} exact;

/* Copies the gradient of all weights to x [size], and begins anew. */
static void put_aside(eqnn_ctx *c, eqnn_real *x)
{
    for (int i = 0; i < eqnn_parameter_count(c); i++) {
        eqnn_tensor *w = eqnn_parameter_at(c, i);
        eqnn_read(eqnn_gradient(w), x);
        x += eqnn_rows(w) * eqnn_cols(w);
    }
    eqnn_zero_gradients(c);
}

/* Makes x [size] the gradient: that of the sum of w x by w is x, to the bit. */
static void put_back(eqnn_ctx *c, const eqnn_real *x)
{
    for (int i = 0; i < eqnn_parameter_count(c); i++) {
        eqnn_tensor *w = eqnn_parameter_at(c, i);
        eqnn_tensor *given = eqnn_from(c, eqnn_rows(w), eqnn_cols(w), x);
        eqnn_backward(eqnn_sum(eqnn_mul(w, given)));
        x += eqnn_rows(w) * eqnn_cols(w);
    }
}

/* The sum over the pieces of all ranks, in their order, into e->sum. */
static void add_in_order(const ddp *d, const exact *e, int pieces)
{
    if (d->rank == 0) memset(e->sum, 0, (size_t)e->size * sizeof *e->sum);
    else MPI_Recv(e->sum, e->size, real_type(), d->rank - 1, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    for (int k = 0; k < pieces; k++) {
        const eqnn_real *piece = e->piece + (size_t)k * (size_t)e->size;
        for (int i = 0; i < e->size; i++) e->sum[i] += piece[i];
    }
    if (d->rank + 1 < d->ranks)
        MPI_Send(e->sum, e->size, real_type(), d->rank + 1, 0, MPI_COMM_WORLD);
    MPI_Bcast(e->sum, e->size, real_type(), d->ranks - 1, MPI_COMM_WORLD);
}

/* Room for a full batch, at the first call. */
static void exact_room(ddp *d, exact *e)
{
    size_t size = eqnn_parameter_size(d->c), pieces = (size_t)(d->batch + PIECE - 1) / PIECE;
    pieces = pieces / (size_t)d->ranks + 1;
    if (size <= INT_MAX) {
        e->size = (int)size;
        e->piece = calloc(pieces * size, sizeof *e->piece);
        e->sum = calloc(size, sizeof *e->sum);
    }
    if (!e->piece || !e->sum) eqnn_fail(d->c, "no memory for %zu gradients of %zu", pieces, size);
    ddp_check(d);
}

/* The gradient of the mean error of items [n], whatever the number of ranks. */
static void learn_in_order(ddp *d, const int *items, int n)
{
    exact *e = d->user;
    int pieces = (n + PIECE - 1) / PIECE;
    int first = ddp_first(pieces, d->rank, d->ranks);
    int end = ddp_first(pieces, d->rank + 1, d->ranks);
    if (!e->sum) exact_room(d, e);
    for (int k = first; k < end; k++) {
        int from = k * PIECE, size = n - from < PIECE ? n - from : PIECE;
        ddp_learn(d, items + from, size, 1.0 / n);
        put_aside(d->c, e->piece + (size_t)(k - first) * (size_t)e->size);
    }
    ddp_check(d);
    add_in_order(d, e, end - first);
    put_back(d->c, e->sum);
}

static const eqnn_option options[] = {
    { "systems", "1024", "to learn from" },
    { "batch", "32", "systems in a step, of all ranks together" },
    { "exact", "off", "the same bits for any number of ranks" },
    { "threads", "1", "of each rank; 0: as many as there are" },
    { "epochs", "30", "passes over the systems" },
    { "data", NULL, NULL },
    { "out", "build/ddp", "folder for log, picture and model; empty: none" },
    { NULL, NULL, NULL }
};

int main(int argc, char **argv)
{
    ddp d;
    exact e = { 0, NULL, NULL };
    const char *about = "the forces of springs, learned by several processes";
    if (ddp_start(&d, &argc, &argv, about, options)) {
        eqnn_opts o = eqnn_args_context(&d.args);
        int in_order = eqnn_args_on(&d.args, "exact");
        if (ddp_context(&d, &o)) {
            d.user = &e;
            if (in_order) d.learn = learn_in_order;
            else eqnn_set_allreduce(d.c, mean_over_ranks, &d);
            ddp_train(&d);
        }
    }
    free(e.piece);
    free(e.sum);
    return ddp_end(&d);
}
