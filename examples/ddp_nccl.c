/* ddp_nccl.c - one network, trained on several GPUs, each by a process of its own

   nvcc -x cu -std=c++17 -O3 -arch=native -c eqnn_cuda.cuh -o eqnn_cuda.o
   mpicc -O2 -DEQNN_CUDA -I. -I/usr/local/cuda/include examples/ddp_nccl.c eqnn_cuda.o \
       -L/usr/local/cuda/lib64 -lnccl -lcudart -lcublas -lstdc++ -lm -o ddp_nccl
   mpirun -n 2 ./ddp_nccl                                                   (or: make ddp_nccl)

   YOU WILL SEE   what ddp_mpi.c prints, with the same numbers to rounding.
   IT TEACHES     what changes when the gradients lie on GPUs: rank k of a machine takes its GPU k,
                  and the callback hands the slab's address there to ncclAllReduce. MPI only starts
                  the processes, tells them how to find each other, and adds the printed errors up.

   The network and its training are those of ddp.h, which knows nothing of GPUs. The exchange is put
   on the stream that eqnn works on (eqnn_stream), behind the gradients and before the optimizer's
   step: nobody waits for it. Another number of GPUs gives other weights, to rounding. */
#define EQNN_IMPLEMENTATION
#include "ddp.h"
#include <cuda_runtime.h>
#include <nccl.h>

typedef struct gpus {
    ddp *d;
    ncclComm_t all;
} gpus;

/* 1 when all went well; else 0, and the context has the sentence. */
static int cuda_good(const gpus *g, cudaError_t e, const char *what)
{
    if (e != cudaSuccess) eqnn_fail(g->d->c, "%s: %s", what, cudaGetErrorString(e));
    return e == cudaSuccess;
}

static int nccl_good(const gpus *g, ncclResult_t e, const char *what)
{
    if (e != ncclSuccess)
        eqnn_fail(g->d->c, "%s: %s: %s", what, ncclGetErrorString(e), ncclGetLastError(g->all));
    return e == ncclSuccess;
}

/* The callback: values lie on this rank's GPU. */
static int mean_over_gpus(void *user, eqnn_real *values, size_t count)
{
    const gpus *g = user;
    ncclDataType_t type = sizeof *values == sizeof(double) ? ncclDouble : ncclFloat;
    cudaStream_t stream = eqnn_stream(g->d->c);
    return nccl_good(g, ncclAllReduce(values, values, count, type, ncclAvg, g->all, stream),
                     "ncclAllReduce");
}

/* Which process this is of those on its machine, and so which GPU it takes. */
static int rank_on_machine(void)
{
    MPI_Comm here;
    int rank;
    MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &here);
    MPI_Comm_rank(here, &rank);
    MPI_Comm_free(&here);
    return rank;
}

/* Rank 0 invents a name for the group, all ranks enter under it. */
static void meet(gpus *g, int device)
{
    ddp *d = g->d;
    ncclUniqueId name;
    if (cuda_good(g, cudaSetDevice(device), "cudaSetDevice") && d->rank == 0)
        nccl_good(g, ncclGetUniqueId(&name), "ncclGetUniqueId");
    ddp_check(d);
    MPI_Bcast(&name, sizeof name, MPI_BYTE, 0, MPI_COMM_WORLD);
    nccl_good(g, ncclCommInitRank(&g->all, d->ranks, name, d->rank), "ncclCommInitRank");
    ddp_check(d);
}

static void part(gpus *g)
{
    cuda_good(g, cudaStreamSynchronize(eqnn_stream(g->d->c)), "the last exchange");
    if (g->all) nccl_good(g, ncclCommDestroy(g->all), "ncclCommDestroy");
    ddp_check(g->d);
}

static const eqnn_option options[] = {
    { "systems", "1024", "to learn from" },
    { "batch", "32", "systems in a step, of all ranks together" },
    { "threads", "1", "of each rank; 0: as many as there are" },
    { "epochs", "30", "passes over the systems" },
    { "data", NULL, NULL },
    { "out", "build/ddp", "folder for log, picture and model; empty: none" },
    { "device", "", "this program takes the GPUs of each machine in their order" },
    { NULL, NULL, NULL }
};

int main(int argc, char **argv)
{
    ddp d;
    gpus g = { &d, NULL };
    if (ddp_start(&d, &argc, &argv, "the forces of springs, learned on several GPUs", options)) {
        char device[32];
        int k = rank_on_machine();
        snprintf(device, sizeof device, "cuda:%d", k);
        eqnn_opts o = { .seed = eqnn_args_seed(&d.args), .device = device,
                        .threads = eqnn_args_int(&d.args, "threads", 0, 1024) };
        if (eqnn_args_given(&d.args, "device"))
            eqnn_args_fail(&d.args, "--device: rank k takes cuda:k");
        if (ddp_context(&d, &o)) {
            meet(&g, k);
            eqnn_set_allreduce(d.c, mean_over_gpus, &g);
            ddp_train(&d);
            part(&g);
        }
    }
    return ddp_end(&d);
}
