/* eqnn_cuda.cuh - v0.1 - the kernels of eqnn.h on a GPU - licence at the end of this file

   The table of kernels (eqnn.h, section 4) filled for CUDA. Compiled once, to an object that
   exports one symbol; programs stay C and say which device they want:

      nvcc -x cu -std=c++17 -O3 -arch=native -c eqnn_cuda.cuh -o eqnn_cuda.o \
           -Xcompiler -fno-threadsafe-statics,-fno-exceptions
      cc -O2 -DEQNN_CUDA prog.c eqnn_cuda.o -lcudart -lcublas -lm

   (The flags of -Xcompiler spare the program a C++ library.) In the program:

      eqnn_opts o = { .device = "cuda:0" };
      eqnn_ctx *c = eqnn_make(&o);

   OPTIONS       Macros of the nvcc line.

      EQNN_DOUBLE      eqnn_real is double, as in the program that is linked      default float
      EQNN_STRICT      our own elementary functions; with -fmad=false             default off
      EQNN_KERNEL      how a kernel that is started is named                      default its name
      EQNN_SHARED      how a block's shared memory is declared                    default __shared__

   IS / IS NOT   Every entry works on one stream, in order, and returns at once. What waits for the
                 GPU is wait, copies to the host, neighbours (for the number of edges), memory that
                 grows or is released, the first use of a plan, a full ring of copies, and
                 forgetting a graph. A step like the last is replayed as a few CUDA graphs. A sum
                 has one owner and a tree that depends on sizes alone, and is never an atomic
                 addition, whose order is anybody's: the same bits from run to run (to rounding
                 those of a processor). Contexts of one thread may live on several GPUs: each
                 chooses its own when it calls CUDA. No CUDA, cuBLAS or C++ header is needed by the
                 program itself.

   CONVENTIONS   Pointers to numbers, indices and graphs are device memory; plans and structs lie on
                 the host. Grids and blocks have one dimension; blocks are multiples of 32 threads;
                 all threads of a block meet every barrier, all lanes of a warp every shuffle.

   A GPU         A kernel is a function that a grid of blocks runs, each of up to 1024 threads; 32
   IN SHORT      of these, a warp, go step by step together, and where they part at a condition
                 both ways are gone one after the other (and nothing promises when they meet again:
                 what a lane reads of another's in shared memory stands behind a barrier, if only
                 of the warp). The threads of a block have barriers, and some memory in common
                 (shared memory: 48 KB without asking, in 32 banks, of which each serves one number
                 at a time); blocks do not know of each other. A number from device memory is some
                 hundred steps away, behind a cache of the multiprocessor (the first) and one of
                 the device (the second). What hides that is other warps: a multiprocessor has up
                 to 64 at hand, as far as its registers (65536) and its shared memory go. Hence
                 blocks of 256 threads, eight of which fill it where a thread makes do with 32
                 registers. Memory comes in pieces of 32 bytes: the threads of a warp should read
                 neighbouring numbers, of which 16 bytes are one instruction (and begin at a
                 multiple of 16). Most kernels here wait for memory and not for arithmetic, so
                 comments count the bytes that have to be moved.

   CONTENTS      1  >>runtime      State of a device, its memory, its first error; launches.
                 2  >>plans        What lasts on the device: copies of plans, made at first use.
                 3  >>plain        Pointwise functions, random numbers, folds, moving rows, matrix
                                   products, harmonics, the training step.
                 4  >>forms        The multilinear forms.
                 5  >>neighbours   Who is near whom.
                 6  >>table        The one symbol. */

#ifndef EQNN_CUDA_CUH
#define EQNN_CUDA_CUH

/* ----------------------------------------------------------------------------------------------
   1 >>runtime   One struct holds what a context has of a GPU. Nothing here exits: what CUDA refuses
                 is kept with the name of the operation, entries do nothing from then on, and wait
                 tells it.
   ---------------------------------------------------------------------------------------------- */

#ifndef EQNN_IMPLEMENTATION
#define EQNN_IMPLEMENTATION
#endif
#ifndef EQNN_STATIC
#define EQNN_STATIC
#endif
#ifndef EQNN_NO_VECTORS
#define EQNN_NO_VECTORS
#endif
#ifndef EQNN_CUDA
#define EQNN_CUDA
#endif
#include "eqnn.h"

/* tests/cuda_emulate.h brings its own CUDA. */
#ifndef EQNN_KERNEL
#include <cublas_v2.h>
#include <cuda_runtime.h>
#define EQNN_KERNEL(kernel) kernel
#define EQNN_SHARED(type, name)                                     \
    extern __shared__ __align__(16) unsigned char eqnn__shared[];   \
    type *name = (type *)(void *)eqnn__shared
#endif

#define EQNN__BLOCK 256         /* threads of most blocks                                       */
#define EQNN__ALL 0xffffffffu   /* all lanes of a warp                                          */
#define EQNN__STAGES 16         /* pieces of the pinned ring, and their size                    */
#define EQNN__STAGE ((size_t)1 << 18)
#ifndef EQNN__WORKSPACE
#define EQNN__WORKSPACE ((size_t)32 << 20) /* cuBLAS's: fixed, so that its sums are the same    */
#endif

/* Working memory, one piece for each use that another may hold at the same time. */
enum {
    EQNN__SCRATCH_FOLD,  /* partial sums of folds and totals           */
    EQNN__SCRATCH_GEMM,  /* products that are summed over batches      */
    EQNN__SCRATCH_FORM,  /* a form's tiles                             */
    EQNN__SCRATCH_PART,  /* a form's partial sums                      */
    EQNN__SCRATCH_NEAR,  /* points in cells, from one call to the next */
    EQNN__SCRATCH_EDGES, /* edges that are not sorted yet              */
    EQNN__SCRATCHES
};

typedef struct eqnn__piece { char *p; size_t size; } eqnn__piece;

/* A copy of a plan: made is a host struct whose pointers are device memory; of whose plan, NULL:
   gone. */
typedef struct eqnn__made {
    const void *plan;
    const eqnn__device *of;
    void *made;
} eqnn__made;

/* What entries ask for, in order, until it is sent off. */
#define EQNN__QUEUE 64                     /* things on a list, and bytes of their arguments      */
#define EQNN__QUEUE_BYTES ((size_t)1 << 15)
#define EQNN__ARGS 24                      /* arguments of a kernel                               */
#define EQNN__REPLAYS 128                  /* lists that are remembered                           */
#ifndef EQNN__GRAPH_LEAST
#define EQNN__GRAPH_LEAST 3                /* length that is worth a graph; 65: no graphs         */
#endif

enum { EQNN__KERNEL, EQNN__COPY_WITHIN, EQNN__COPY_STAGED, EQNN__CALL };

/* Any function has a place in this. */
typedef void (*eqnn__any)(void);
typedef struct eqnn__queued {
    int kind;
    unsigned grid, block, args;
    size_t shared;                        /* bytes; of a copy: how many it moves                 */
    eqnn__any what;                       /* the kernel, or the function of a CALL               */
    size_t at, bytes;                     /* arguments: those of a kernel one by one, a copy's
                                             addresses, or the struct of a CALL                  */
    unsigned short arg[EQNN__ARGS];       /* where each argument of a kernel begins there        */
    const char *op;
} eqnn__queued;

typedef struct eqnn__queue {
    eqnn__queued item[EQNN__QUEUE];
    size_t count, used;
    unsigned char *bytes;
} eqnn__queue;

/* A list that came before, and the graph that was made of it when it came again. */
typedef struct eqnn__again {
    eqnn__queue *list;                    /* as it came last; NULL: this place is free            */
    uint64_t hash, used;                  /* of what must be equal; when it came last            */
    int plain;                            /* CUDA makes no graph of it                           */
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    cudaGraphNode_t node[EQNN__QUEUE];
} eqnn__again;

typedef struct eqnn__gpu {
    int index;                          /* which device                                       */
    size_t shared;                      /* bytes of shared memory that a block may ask for    */
    cudaStream_t stream;
    cublasHandle_t blas;
    void *workspace;
    char *stage;                        /* pinned memory: a ring of EQNN__STAGES pieces       */
    size_t at, used;                    /* the piece being filled; bytes of it                */
    cudaEvent_t gone[EQNN__STAGES];     /* all copies out of a piece are through              */
    eqnn__piece scratch[EQNN__SCRATCHES];
    unsigned long long *mark;           /* device memory: what check found                    */
    unsigned long long *told;           /* pinned memory: what it was at the last wait        */
    uint64_t checks;                    /* since the last wait                                */
    int64_t first_step;                 /* of these                                           */
    const eqnn__device *owner;          /* which made it; its workers share it                */
    int failed;
    char why[256];                      /* the first failure's sentence                       */
    eqnn__piece *slab;                  /* lasting device memory: all pieces, room in the last */
    size_t slabs, slab_room, slab_used;
    eqnn__made *made;                   /* hash table of plans                                */
    size_t mades, made_room;
    eqnn__queue list;                   /* what was asked for and is not sent off yet         */
    eqnn__again replay[EQNN__REPLAYS];  /* lists that came before                             */
    uint64_t sent;                      /* lists so far                                       */
    unsigned left;                      /* bit i: piece i of the ring is full, and copies out
                                           of it are on the list                              */
    const char *op;                     /* of what is being sent off; NULL: nothing is        */
} eqnn__gpu;

#define EQNN__UNMARKED 0xffffffffffffffffull
#define EQNN__ADDRESS 0x0000ffffffffffffull /* bits of a device address */

static eqnn__gpu *eqnn__gpu_of(const eqnn__device *d)
{
    return (eqnn__gpu *)d->gpu;
}

static constexpr size_t eqnn__round_up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

/* Keeps the first failure, with the operation at work. */
static void eqnn__gpu_fail(eqnn__device *d, const char *what)
{
    eqnn__gpu *g = eqnn__gpu_of(d);
    const char *op = g->op ? g->op : d->op ? *d->op : NULL;
    if (g->failed) return;
    g->failed = 1;
    snprintf(g->why, sizeof g->why, "%s: cuda:%d: %s", op ? op : "device", g->index, what);
}

/* Looks at what CUDA returned: 1 when all is well. */
static int eqnn__look(eqnn__device *d, cudaError_t e)
{
    if (e == cudaSuccess) return 1;
    eqnn__gpu_fail(d, cudaGetErrorString(e));
    return 0;
}

/* The same of a call that waits, and hears what went wrong in work begun before it: by whom is not
   known any more. (CUDA_LAUNCH_BLOCKING=1 in the environment finds out, in a program whose kernels
   were compiled with -DEQNN__GRAPH_LEAST=65.) */
static int eqnn__look_back(eqnn__device *d, cudaError_t e)
{
    char what[200];
    if (e == cudaSuccess) return 1;
    snprintf(what, sizeof what, "%s (of this or of work begun before)", cudaGetErrorString(e));
    eqnn__gpu_fail(d, what);
    return 0;
}

/* Waits for all that is on the stream: 1 when all is well. */
static int eqnn__gpu_sync(eqnn__device *d)
{
    return eqnn__look_back(d, cudaStreamSynchronize(eqnn__gpu_of(d)->stream));
}

/* CUDA keeps one device for each thread of the host, and this thread may have worked with another
   one since: called before whatever concerns the present device. */
static int eqnn__gpu_choose(eqnn__device *d)
{
    return eqnn__look(d, cudaSetDevice(eqnn__gpu_of(d)->index));
}

static int eqnn__look_blas(eqnn__device *d, cublasStatus_t s)
{
    if (s == CUBLAS_STATUS_SUCCESS) return 1;
    eqnn__gpu_fail(d, cublasGetStatusString(s));
    return 0;
}

/* ---- the list ----

   To start a kernel costs the host some microseconds, which a small model's kernels do not take.
   So entries do not start them: they put them on a list, as they do copies and matrix products.
   It is sent off when something waits, at the end of a step, and when it is full, so that a GPU is
   at work while the host goes on with a large step.

   A list that comes a second time becomes a CUDA graph, which costs one start. The same list: the
   same kernels and calls, with the same grids and sizes, in the same order. Arguments may differ
   where there are few that do (an optimizer's corrections, random numbers, pieces of the ring):
   they are changed in the graph, by one call each. Otherwise everything on the list is started by
   itself, as are lists that come once. */

static cudaMemcpyKind eqnn__queued_way(const eqnn__queued *t)
{
    return t->kind == EQNN__COPY_WITHIN ? cudaMemcpyDeviceToDevice : cudaMemcpyHostToDevice;
}

/* Runs one thing on the list by itself: 1 when CUDA took it. */
static int eqnn__queued_run(eqnn__device *d, const eqnn__queue *l, const eqnn__queued *t)
{
    eqnn__gpu *g = eqnn__gpu_of(d);
    unsigned char *p = l->bytes + t->at;
    void *args[EQNN__ARGS], *address[2];
    if (t->kind == EQNN__CALL)
        return ((int (*)(eqnn__device *, const void *))t->what)(d, p);
    if (t->kind != EQNN__KERNEL) {
        memcpy(address, p, sizeof address);
        return eqnn__look(d, cudaMemcpyAsync(address[0], address[1], t->shared,
                                             eqnn__queued_way(t), g->stream));
    }
    for (unsigned i = 0; i < t->args; i++) args[i] = p + t->arg[i];
    return eqnn__look(d, cudaLaunchKernel((const void *)t->what, dim3(t->grid), dim3(t->block),
                                          args, t->shared, g->stream));
}

/* Everything on the list by itself. What comes behind a failure is not begun. */
static void eqnn__queue_run(eqnn__device *d, const eqnn__queue *l)
{
    int good = 1;
    for (size_t i = 0; i < l->count && good; i++) {
        eqnn__gpu_of(d)->op = l->item[i].op;
        good = eqnn__queued_run(d, l, l->item + i);
    }
}

static cudaKernelNodeParams eqnn__queued_kernel(const eqnn__queue *l, const eqnn__queued *t,
                                                void **args)
{
    cudaKernelNodeParams p = cudaKernelNodeParams();
    for (unsigned i = 0; i < t->args; i++) args[i] = l->bytes + t->at + t->arg[i];
    p.func = (void *)t->what;
    p.gridDim = dim3(t->grid);
    p.blockDim = dim3(t->block);
    p.sharedMemBytes = (unsigned)t->shared;
    p.kernelParams = args;
    return p;
}

/* What a CALL does is captured, and is one node. */
static int eqnn__again_call(eqnn__device *d, eqnn__again *r, const eqnn__queued *t,
                             cudaGraphNode_t *node, const cudaGraphNode_t *after, size_t n)
{
    eqnn__gpu *g = eqnn__gpu_of(d);
    cudaGraph_t part = NULL;
    if (!eqnn__look(d, cudaStreamBeginCapture(g->stream, cudaStreamCaptureModeRelaxed))) return 0;
    int good = eqnn__queued_run(d, r->list, t);
    good = eqnn__look(d, cudaStreamEndCapture(g->stream, &part)) && good;
    good = good && eqnn__look(d, cudaGraphAddChildGraphNode(node, r->graph, after, n, part));
    if (part) good = eqnn__look(d, cudaGraphDestroy(part)) && good;
    return good;
}

/* Adds thing i of the list to the graph, behind the one before it. */
static int eqnn__again_add(eqnn__device *d, eqnn__again *r, size_t i)
{
    const eqnn__queued *t = r->list->item + i;
    const cudaGraphNode_t *after = i ? &r->node[i - 1] : NULL;
    void *args[EQNN__ARGS], *address[2];
    if (t->kind == EQNN__CALL) return eqnn__again_call(d, r, t, &r->node[i], after, i > 0);
    if (t->kind == EQNN__KERNEL) {
        cudaKernelNodeParams p = eqnn__queued_kernel(r->list, t, args);
        return eqnn__look(d, cudaGraphAddKernelNode(&r->node[i], r->graph, after, i > 0, &p));
    }
    memcpy(address, r->list->bytes + t->at, sizeof address);
    return eqnn__look(d, cudaGraphAddMemcpyNode1D(
        &r->node[i], r->graph, after, i > 0, address[0], address[1], t->shared,
        eqnn__queued_way(t)));
}

static void eqnn__again_drop(eqnn__again *r)
{
    if (r->exec) (void)cudaGraphExecDestroy(r->exec);
    if (r->graph) (void)cudaGraphDestroy(r->graph);
    free(r->list);
    memset(r, 0, sizeof *r);
}

/* When CUDA refuses to make or to change a graph, for lack of memory or because a call cannot be
   captured, the list is plain from now on: it runs without a graph as well. */
static void eqnn__again_refused(eqnn__device *d, eqnn__again *r)
{
    r->plain = 1;
    eqnn__gpu_of(d)->failed = 0;
    (void)cudaGetLastError();
}

static void eqnn__again_build(eqnn__device *d, eqnn__again *r)
{
    int good = eqnn__look(d, cudaGraphCreate(&r->graph, 0));
    for (size_t i = 0; i < r->list->count && good; i++) good = eqnn__again_add(d, r, i);
    good = good && eqnn__look(d, cudaGraphInstantiateWithFlags(&r->exec, r->graph, 0));
    if (!good) eqnn__again_refused(d, r);
}

/* Are arguments of thing i others than last time? */
static int eqnn__again_differs(const eqnn__again *r, const eqnn__queue *l, size_t i)
{
    const eqnn__queued *t = l->item + i;
    return memcmp(r->list->bytes + t->at, l->bytes + t->at, t->bytes) != 0;
}

/* Gives thing i of the graph the arguments it has on this list. */
static int eqnn__again_change(eqnn__device *d, eqnn__again *r, const eqnn__queue *l, size_t i)
{
    const eqnn__queued *t = l->item + i;
    void *args[EQNN__ARGS], *address[2];
    int good;
    eqnn__gpu_of(d)->op = t->op;
    if (t->kind == EQNN__KERNEL) {
        cudaKernelNodeParams p = eqnn__queued_kernel(l, t, args);
        good = eqnn__look(d, cudaGraphExecKernelNodeSetParams(r->exec, r->node[i], &p));
    } else {
        memcpy(address, l->bytes + t->at, sizeof address);
        good = eqnn__look(d, cudaGraphExecMemcpyNodeSetParams1D(
            r->exec, r->node[i], address[0], address[1], t->shared, eqnn__queued_way(t)));
    }
    if (good) memcpy(r->list->bytes + t->at, l->bytes + t->at, t->bytes);
    return good;
}

/* Sends the list off as that graph. */
static void eqnn__again_run(eqnn__device *d, eqnn__again *r, const eqnn__queue *l)
{
    for (size_t i = 0; i < l->count; i++)
        if (eqnn__again_differs(r, l, i) && !eqnn__again_change(d, r, l, i)) {
            eqnn__again_refused(d, r);
            eqnn__queue_run(d, l);
            return;
        }
    eqnn__gpu_of(d)->op = l->item[0].op;
    cudaError_t e = cudaGraphLaunch(r->exec, eqnn__gpu_of(d)->stream);
    if (e != cudaErrorMemoryAllocation) {
        eqnn__look(d, e);
        return;
    }
    eqnn__again_refused(d, r);
    eqnn__queue_run(d, l);
}

/* Of all that must be equal; what a CALL is given cannot be changed in a graph. */
static uint64_t eqnn__queue_hash(const eqnn__queue *l)
{
    uint64_t h = l->count;
    for (size_t i = 0; i < l->count; i++) {
        const eqnn__queued *t = l->item + i;
        h = eqnn__mix64(h ^ (uint64_t)(uintptr_t)t->what) + (uint64_t)t->kind;
        h = eqnn__mix64(h ^ ((uint64_t)t->grid << 32 | t->block));
        h = eqnn__mix64(h ^ ((uint64_t)t->shared << 16 ^ t->bytes));
        for (size_t k = 0; t->kind == EQNN__CALL && k + 8 <= t->bytes; k += 8) {
            uint64_t word;
            memcpy(&word, l->bytes + t->at + k, 8);
            h = eqnn__mix64(h ^ word);
        }
    }
    return h;
}

/* The same list but for at most so many arguments? The hash was found equal. */
static int eqnn__again_is(const eqnn__again *r, const eqnn__queue *l)
{
    size_t differ = 0;
    if (r->list->count != l->count || r->list->used != l->used) return 0;
    for (size_t i = 0; i < l->count; i++) {
        const eqnn__queued *a = r->list->item + i, *b = l->item + i;
        int other = eqnn__again_differs(r, l, i);
        if (a->kind != b->kind || a->what != b->what || a->grid != b->grid ||
            a->block != b->block || a->shared != b->shared || a->at != b->at ||
            a->bytes != b->bytes || (other && a->kind == EQNN__CALL))
            return 0;
        differ += (size_t)other;
    }
    return differ <= 4 + l->count / 4;
}

/* The list as it came before; else NULL, and it takes the place of what came longest ago. */
static eqnn__again *eqnn__again_find(eqnn__device *d, const eqnn__queue *l)
{
    eqnn__gpu *g = eqnn__gpu_of(d);
    uint64_t hash = eqnn__queue_hash(l);
    eqnn__again *oldest = g->replay;
    g->sent++;
    for (eqnn__again *r = g->replay; r < g->replay + EQNN__REPLAYS; r++) {
        if (r->used < oldest->used) oldest = r;
        if (!r->list || r->hash != hash || !eqnn__again_is(r, l)) continue;
        r->used = g->sent;
        return r;
    }
    if (oldest->exec && !eqnn__gpu_sync(d)) return NULL; /* it may be at work */
    eqnn__again_drop(oldest);
    oldest->list = (eqnn__queue *)malloc(sizeof *l + l->used);
    if (!oldest->list) return NULL; /* it is not remembered */
    *oldest->list = *l;
    oldest->list->bytes = (unsigned char *)(oldest->list + 1);
    memcpy(oldest->list->bytes, l->bytes, l->used);
    oldest->hash = hash;
    oldest->used = g->sent;
    return NULL;
}

static void eqnn__queue_begin(eqnn__device *d, const eqnn__queue *l)
{
    eqnn__again *r = NULL;
    if (l->count >= EQNN__GRAPH_LEAST && !eqnn__gpu_of(d)->failed) r = eqnn__again_find(d, l);
    if (r && !r->exec && !r->plain) {
        /* those of last time may point to what is gone */
        memcpy(r->list->bytes, l->bytes, l->used);
        eqnn__again_build(d, r);
    }
    if (r && !r->plain) eqnn__again_run(d, r, l);
    else eqnn__queue_run(d, l);
}

/* Sends off what is on the list; then the ring's full pieces are free when that is through. */
static void eqnn__cuda_send(eqnn__device *d)
{
    eqnn__gpu *g = eqnn__gpu_of(d);
    if (g->list.count == 0 && !g->left) return;
    if (eqnn__gpu_choose(d) && g->list.count) eqnn__queue_begin(d, &g->list);
    g->op = NULL;
    for (int i = 0; i < EQNN__STAGES; i++)
        if (g->left >> i & 1) eqnn__look(d, cudaEventRecord(g->gone[i], g->stream));
    g->left = 0;
    g->list.count = g->list.used = 0;
}

/* Room on the list for something with so many bytes of arguments; NULL: something failed before. */
static eqnn__queued *eqnn__queue_add(eqnn__device *d, int kind, eqnn__any what, size_t bytes)
{
    eqnn__gpu *g = eqnn__gpu_of(d);
    eqnn__queue *l = &g->list;
    if (l->count == EQNN__QUEUE || l->used + bytes > EQNN__QUEUE_BYTES) eqnn__cuda_send(d);
    if (g->failed) return NULL;
    eqnn__queued *t = l->item + l->count++;
    memset(t, 0, sizeof *t);
    t->kind = kind;
    t->what = what;
    t->at = l->used;
    t->bytes = bytes;
    t->op = d->op ? *d->op : NULL;
    l->used += eqnn__round_up(bytes, 16);
    memset(l->bytes + t->at, 0, l->used - t->at);
    return t;
}

static void eqnn__queue_copy(eqnn__device *d, int kind, void *to, const void *from, size_t bytes)
{
    const void *address[2] = {to, from};
    eqnn__queued *t = eqnn__queue_add(d, kind, NULL, sizeof address);
    if (!t) return;
    t->shared = bytes;
    memcpy(eqnn__gpu_of(d)->list.bytes + t->at, address, sizeof address);
}

/* call(d, a copy of those bytes), which puts work on the stream and returns 1 when all is well. */
static void eqnn__queue_call(eqnn__device *d, int (*call)(eqnn__device *, const void *),
                            const void *args, size_t bytes)
{
    eqnn__queued *t = eqnn__queue_add(d, EQNN__CALL, (eqnn__any)call, bytes);
    if (t) memcpy(eqnn__gpu_of(d)->list.bytes + t->at, args, bytes);
}

template <class P>
static void eqnn__queued_arg(eqnn__queue *l, eqnn__queued *t, size_t *at, const P &v)
{
    memcpy(l->bytes + t->at + *at, &v, sizeof v);
    t->arg[t->args++] = (unsigned short)*at;
    *at += eqnn__round_up(sizeof v, 16);
}

/* Arguments become what the kernel takes, as in a call. */
template <class... P, class... A>
static void eqnn__queue_kernel(eqnn__device *d, void (*kernel)(P...), size_t grid, size_t block,
                              size_t shared, const A &...args)
{
    static_assert(sizeof...(P) == sizeof...(A) && sizeof...(P) <= EQNN__ARGS, "arguments");
    constexpr size_t bytes = (eqnn__round_up(sizeof(P), 16) + ...);
    static_assert(bytes <= 4096, "a kernel takes no more than 4 KB of arguments");
    size_t at = 0;
    eqnn__queued *t = eqnn__queue_add(d, EQNN__KERNEL, (eqnn__any)kernel, bytes);
    if (!t) return;
    t->grid = (unsigned)grid;
    t->block = (unsigned)block;
    t->shared = shared;
    (eqnn__queued_arg<P>(&eqnn__gpu_of(d)->list, t, &at, (P)args), ...);
}

/* Blocks may ask for more shared memory than the 48 KB that need no asking. All there is, so that
   what is on the list does not depend on what comes later. */
static int eqnn__shared_allow(eqnn__device *d, const void *kernel)
{
    return eqnn__gpu_choose(d) &&
           eqnn__look(d, cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                              (int)eqnn__gpu_of(d)->shared));
}

/* Puts a kernel on the list unless something failed before. */
#define EQNN__RUN(d, kernel, grid, block, shared, ...)                                             \
    do {                                                                                           \
        if (eqnn__gpu_of(d)->failed || (grid) == 0) break;                                         \
        if ((shared) > 49152 && !eqnn__shared_allow(d, (const void *)kernel)) break;               \
        eqnn__queue_kernel(d, EQNN_KERNEL(kernel), grid, block, shared, __VA_ARGS__);              \
    } while (0)

/* Blocks for n threads that stride over the rest: enough to fill a large device several times (132
   multiprocessors of 8 blocks are 1056), the same on every device. */
static size_t eqnn__grid_of(size_t n)
{
    size_t blocks = (n + EQNN__BLOCK - 1) / EQNN__BLOCK;
    return blocks < 16384 ? blocks : 16384;
}

/* for (i of this thread; i < n; ...) */
#define EQNN__STRIDE(i, n)                                                                         \
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < (n);                        \
         i += (size_t)gridDim.x * blockDim.x)

/* A new piece of `want` bytes, or of `least` where there is no room for so many: 1 on success. */
static int eqnn__piece_make(eqnn__device *d, size_t least, size_t want, eqnn__piece *s)
{
    char what[128];
    void *p = NULL;
    cudaError_t e = cudaMalloc(&p, s->size = want);
    if (e == cudaErrorMemoryAllocation && least < want) e = cudaMalloc(&p, s->size = least);
    s->p = (char *)p;
    if (e == cudaSuccess) return 1;
    s->p = NULL;
    s->size = 0;
    if (e != cudaErrorMemoryAllocation) return eqnn__look_back(d, e);
    (void)cudaGetLastError(); /* not a failure of the device */
    snprintf(what, sizeof what, "out of memory: %zu bytes of working memory asked for", least);
    eqnn__gpu_fail(d, what);
    return 0;
}

/* At least so many bytes of device memory, until the next call for the same use. Growing waits, so
   it takes half as much again as there was, that it be seldom; NULL: a failure was or is kept. */
static void *eqnn__scratch(eqnn__device *d, int use, size_t bytes)
{
    eqnn__gpu *g = eqnn__gpu_of(d);
    eqnn__piece *s = g->scratch + use;
    size_t more = s->size + s->size / 2;
    if (g->failed) return NULL;
    if (bytes <= s->size) return s->p;
    eqnn__cuda_send(d); /* what is on the list may use it */
    if (!eqnn__gpu_choose(d) || !eqnn__gpu_sync(d) || !eqnn__look(d, cudaFree(s->p))) return NULL;
    bytes = eqnn__round_up(bytes, 65536);
    more = eqnn__round_up(more, 65536);
    return eqnn__piece_make(d, bytes, more > bytes ? more : bytes, s) ? s->p : NULL;
}

/* The next n things in a piece of working memory, of which `used` bytes are taken so far, 256-byte
   aligned. Without a base it only counts. */
template <class T> static void eqnn__carve(void *base, size_t *used, size_t n, T **to)
{
    *to = base ? (T *)(void *)((char *)base + *used) : NULL;
    *used += eqnn__round_up(n * sizeof(T), 256);
}

/* ---- begin and end ---- */

static int eqnn__gpu_open(eqnn__device *d)
{
    eqnn__gpu *g = eqnn__gpu_of(d);
    int shared = 0;
    void *p = NULL;
    if (!eqnn__gpu_choose(d) ||
        !eqnn__look(d, cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin,
                                              g->index)) ||
        !eqnn__look(d, cudaStreamCreateWithFlags(&g->stream, cudaStreamNonBlocking)))
        return 0;
    g->shared = (size_t)shared;
    for (int i = 0; i < EQNN__STAGES; i++)
        if (!eqnn__look(d, cudaEventCreateWithFlags(&g->gone[i], cudaEventDisableTiming)) ||
            !eqnn__look(d, cudaEventRecord(g->gone[i], g->stream)))
            return 0;
    if (!eqnn__look(d, cudaMallocHost(&p, EQNN__STAGES * EQNN__STAGE))) return 0;
    g->stage = (char *)p;
    if (!eqnn__look(d, cudaMallocHost(&p, sizeof *g->told))) return 0;
    g->told = (unsigned long long *)p;
    if (!eqnn__look(d, cudaMalloc(&p, sizeof *g->mark))) return 0;
    g->mark = (unsigned long long *)p;
    if (!eqnn__look(d, cudaMemsetAsync(g->mark, 0xff, sizeof *g->mark, g->stream)) ||
        !eqnn__look(d, cudaMalloc(&g->workspace, EQNN__WORKSPACE)) ||
        !eqnn__look_blas(d, cublasCreate(&g->blas)) ||
        !eqnn__look_blas(d, cublasSetStream(g->blas, g->stream)) ||
        !eqnn__look_blas(d, cublasSetMathMode(g->blas, d->tf32 ? CUBLAS_TF32_TENSOR_OP_MATH
                                                               : CUBLAS_DEFAULT_MATH)) ||
        !eqnn__look_blas(d, cublasSetWorkspace(g->blas, g->workspace, EQNN__WORKSPACE)))
        return 0;
    return eqnn__gpu_sync(d);
}

/* A worker's plans go with it: their addresses may come again. */
static void eqnn__gpu_forget(eqnn__device *d)
{
    eqnn__gpu *g = eqnn__gpu_of(d);
    for (size_t i = 0; i < g->made_room; i++)
        if (g->made[i].of == d) g->made[i].of = NULL;
}

static void eqnn__cuda_end(eqnn__device *d)
{
    eqnn__gpu *g = eqnn__gpu_of(d);
    if (!g) return;
    if (g->owner != d) {
        eqnn__gpu_forget(d);
        d->gpu = NULL;
        return;
    }
    (void)cudaSetDevice(g->index); /* nobody is left to hear what fails from here on */
    if (g->stream) (void)cudaStreamSynchronize(g->stream);
    for (int i = 0; i < EQNN__REPLAYS; i++) eqnn__again_drop(&g->replay[i]);
    if (g->blas) (void)cublasDestroy(g->blas);
    for (int i = 0; i < EQNN__SCRATCHES; i++) (void)cudaFree(g->scratch[i].p);
    for (size_t i = 0; i < g->slabs; i++) (void)cudaFree(g->slab[i].p);
    for (size_t i = 0; i < g->made_room; i++) free(g->made[i].made);
    (void)cudaFree(g->workspace);
    (void)cudaFree(g->mark);
    (void)cudaFreeHost(g->told);
    (void)cudaFreeHost(g->stage);
    for (int i = 0; i < EQNN__STAGES; i++)
        if (g->gone[i]) (void)cudaEventDestroy(g->gone[i]);
    if (g->stream) (void)cudaStreamDestroy(g->stream);
    free(g->slab);
    free(g->made);
    free(g);
    d->gpu = NULL;
    (void)cudaGetLastError(); /* the next who asks, another context's cuBLAS, is not to blame */
}

static int eqnn__cuda_begin(eqnn__device *d, int index, char *why, size_t size)
{
    int count = 0;
    cudaError_t e = cudaGetDeviceCount(&count);
    d->gpu = NULL;
    if (e != cudaSuccess || count == 0) {
        (void)cudaGetLastError();
        snprintf(why, size, "no GPU can be used here (%s)",
                 e == cudaSuccess ? "none was found" : cudaGetErrorString(e));
        return 0;
    }
    if (index < 0 || index >= count) {
        snprintf(why, size, "there %s %d, counted from 0", count == 1 ? "is" : "are", count);
        return 0;
    }
    eqnn__gpu *g = (eqnn__gpu *)calloc(1, sizeof *g + EQNN__QUEUE_BYTES);
    if (!g) {
        snprintf(why, size, "out of memory on the host");
        return 0;
    }
    d->gpu = g;
    g->list.bytes = (unsigned char *)(g + 1);
    g->owner = d;
    g->index = index;
    if (eqnn__gpu_open(d)) {
        d->stream = g->stream;
        return 1;
    }
    snprintf(why, size, "%s", g->why);
    eqnn__cuda_end(d);
    return 0;
}

/* ---- memory ---- */

static void *eqnn__cuda_reserve(eqnn__device *d, size_t bytes)
{
    void *p = NULL;
    if (!eqnn__gpu_choose(d)) return NULL;
    cudaError_t e = cudaMalloc(&p, bytes ? bytes : 1);
    if (e == cudaSuccess) return p;
    if (e != cudaErrorMemoryAllocation) eqnn__look_back(d, e);
    (void)cudaGetLastError(); /* the caller says what there was no room for */
    return NULL;
}

static void eqnn__cuda_release(eqnn__device *d, void *p, size_t bytes)
{
    (void)bytes;
    eqnn__cuda_send(d);
    if (eqnn__gpu_choose(d)) eqnn__gpu_sync(d);
    eqnn__look(d, cudaFree(p)); /* which need not wait for what works on it */
}

/* The part of a copy that fits what is left of the ring's piece (a small copy is not parted). A
   full piece is left behind, and taken again when what uses it has passed. Returns bytes staged, 0
   on failure. */
static size_t eqnn__stage(eqnn__device *d, char *to, const char *from, size_t bytes)
{
    eqnn__gpu *g = eqnn__gpu_of(d);
    size_t room = EQNN__STAGE - g->used;
    if (room == 0 || (room < bytes && bytes <= EQNN__STAGE)) {
        g->left |= 1u << g->at;
        g->at = (g->at + 1) % EQNN__STAGES;
        g->used = 0;
        if (g->left >> g->at & 1) eqnn__cuda_send(d);
        if (g->failed || !eqnn__look(d, cudaEventSynchronize(g->gone[g->at]))) return 0;
        room = EQNN__STAGE;
    }
    size_t n = bytes < room ? bytes : room;
    char *p = g->stage + g->at * EQNN__STAGE + g->used;
    memcpy(p, from, n);
    size_t next = eqnn__round_up(g->used + n, 64);
    g->used = next < EQNN__STAGE ? next : EQNN__STAGE;
    eqnn__queue_copy(d, EQNN__COPY_STAGED, to, p, n);
    return g->failed ? 0 : n;
}

static void eqnn__cuda_copy(eqnn__device *d, void *to, const void *from, size_t bytes, int way)
{
    eqnn__gpu *g = eqnn__gpu_of(d);
    char *p = (char *)to;
    const char *q = (const char *)from;
    if (bytes == 0) return;
    if (g->failed) {
        if (way == EQNN__TO_HOST) memset(to, 0xff, bytes); /* NaN: nobody computes with that */
        return;
    }
    if (way == EQNN__WITHIN) {
        eqnn__queue_copy(d, EQNN__COPY_WITHIN, to, from, bytes);
    } else if (way == EQNN__TO_HOST) {
        eqnn__cuda_send(d);
        if (g->failed || !eqnn__gpu_choose(d) ||
            !eqnn__look_back(d, cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost,
                                                g->stream)) ||
            !eqnn__gpu_sync(d))
            memset(to, 0xff, bytes);
    } else {
        for (size_t n; bytes > 0; bytes -= n, p += n, q += n)
            if ((n = eqnn__stage(d, p, q, bytes)) == 0) return;
    }
}

template <class T> static __global__ void eqnn__fill_kernel(size_t n, T value, T *x)
{
    EQNN__STRIDE(i, n) x[i] = value;
}

/* What lies on the list stays in order: nothing else may work on the stream. */
static void eqnn__fill_ints(eqnn__device *d, size_t n, int value, void *x)
{
    EQNN__RUN(d, eqnn__fill_kernel<int>, eqnn__grid_of(n), EQNN__BLOCK, 0, n, value, (int *)x);
}

static void eqnn__cuda_fill(eqnn__device *d, size_t n, double value, eqnn_real *x)
{
    EQNN__RUN(d, eqnn__fill_kernel<eqnn_real>, eqnn__grid_of(n), EQNN__BLOCK, 0, n,
              (eqnn_real)value, x);
}

/* What check found, for the host; the mark is taken away. */
static void eqnn__gpu_told(eqnn__device *d)
{
    eqnn__gpu *g = eqnn__gpu_of(d);
    g->checks = 0;
    if (*g->told == EQNN__UNMARKED) return;
    d->flag = 1;
    d->bad_step = g->first_step + (int64_t)(*g->told >> 48);
    d->bad = (const eqnn_real *)(uintptr_t)(*g->told & EQNN__ADDRESS);
    eqnn__look(d, cudaMemsetAsync(g->mark, 0xff, sizeof *g->mark, g->stream));
}

/* Waits for all that was begun. A failure is told once: if the device still answers afterwards
   (memory ran out, a launch was refused), work goes on. */
static int eqnn__cuda_wait(eqnn__device *d, char *why, size_t size)
{
    eqnn__gpu *g = eqnn__gpu_of(d);
    eqnn__cuda_send(d);
    eqnn__gpu_choose(d);
    if (!g->failed && g->checks > 0 &&
        eqnn__look(d, cudaMemcpyAsync(g->told, g->mark, sizeof *g->told, cudaMemcpyDeviceToHost,
                                      g->stream)) &&
        eqnn__gpu_sync(d))
        eqnn__gpu_told(d);
    else if (!g->failed) eqnn__gpu_sync(d);
    if (!g->failed) return 1;
    snprintf(why, size, "%s", g->why);
    (void)cudaGetLastError();
    if (cudaStreamSynchronize(g->stream) == cudaSuccess) g->failed = 0;
    return 0;
}

/* ----------------------------------------------------------------------------------------------
   2 >>plans   Plans are made on the host and last as long as the context. Their arrays are copied
               to the device when a kernel first needs them.
   ---------------------------------------------------------------------------------------------- */

/* Lasting device memory, 256-byte aligned; NULL: a failure is kept. */
static void *eqnn__gpu_keep(eqnn__device *d, size_t bytes)
{
    eqnn__gpu *g = eqnn__gpu_of(d);
    size_t need = eqnn__round_up(bytes, 256), slab = (size_t)1 << 20;
    if (g->failed) return NULL;
    if (g->slabs == 0 || g->slab[g->slabs - 1].size - g->slab_used < need) {
        if (g->slabs == g->slab_room) {
            size_t room = g->slab_room ? 2 * g->slab_room : 16;
            eqnn__piece *more = (eqnn__piece *)realloc(g->slab, room * sizeof *more);
            if (!more) return eqnn__gpu_fail(d, "out of memory on the host"), (void *)NULL;
            g->slab = more;
            g->slab_room = room;
        }
        if (!eqnn__gpu_choose(d) ||
            !eqnn__piece_make(d, need, need > slab ? need : slab, g->slab + g->slabs))
            return NULL;
        g->slabs++;
        g->slab_used = 0;
    }
    g->slab_used += need;
    return g->slab[g->slabs - 1].p + g->slab_used - need;
}

/* A lasting copy of n things of the host; of none it is an address all the same. NULL: a failure is
   kept. */
template <class T> static T *eqnn__gpu_upload(eqnn__device *d, const T *from, size_t n)
{
    T *p = (T *)eqnn__gpu_keep(d, n ? n * sizeof(T) : 1);
    if (p) eqnn__cuda_copy(d, p, from, n * sizeof(T), EQNN__TO_DEVICE);
    return p;
}

/* n zeroed things of the host (of none it is an address all the same); NULL: a failure is kept. */
template <class T> static T *eqnn__host_array(eqnn__device *d, size_t n)
{
    T *p = (T *)calloc(n + 1, sizeof(T));
    if (!p) eqnn__gpu_fail(d, "out of memory on the host");
    return p;
}

static eqnn__made *eqnn__made_find(eqnn__made *table, size_t room, const void *plan)
{
    size_t i = (size_t)eqnn__mix64((uint64_t)(uintptr_t)plan) & (room - 1);
    while (table[i].plan && table[i].plan != plan) i = (i + 1) & (room - 1);
    return table + i;
}

static int eqnn__made_grow(eqnn__device *d)
{
    eqnn__gpu *g = eqnn__gpu_of(d);
    size_t room = g->made_room ? 2 * g->made_room : 64;
    if (2 * (g->mades + 1) < g->made_room) return 1;
    eqnn__made *table = eqnn__host_array<eqnn__made>(d, room);
    if (!table) return 0;
    for (size_t i = 0; i < g->made_room; i++)
        if (g->made[i].plan) *eqnn__made_find(table, room, g->made[i].plan) = g->made[i];
    free(g->made);
    g->made = table;
    g->made_room = room;
    return 1;
}

/* What make() made of a plan when it was first asked for: a zeroed struct of the host that make
   fills with lasting device memory (eqnn__gpu_upload). NULL: a failure is kept. */
template <class P, class C>
static const C *eqnn__gpu_plan(eqnn__device *d, const void *plan,
                               void (*make)(eqnn__device *d, const P *plan, C *made))
{
    eqnn__gpu *g = eqnn__gpu_of(d);
    if (g->failed || !eqnn__made_grow(d)) return NULL;
    eqnn__made *m = eqnn__made_find(g->made, g->made_room, plan);
    if (m->plan && m->of) return (const C *)m->made;
    C *made = eqnn__host_array<C>(d, 1);
    if (!made) return NULL;
    make(d, (const P *)plan, made);
    eqnn__cuda_send(d); /* what lasts has to be there: what comes behind a failure is dropped */
    if (!g->failed) eqnn__gpu_sync(d);
    if (g->failed) {
        free(made);
        return NULL;
    }
    g->mades += m->plan == NULL;
    free(m->made); /* of another plan that lay there before */
    m->plan = plan;
    m->of = d;
    m->made = made;
    return made;
}

/* ----------------------------------------------------------------------------------------------
   3 >>plain   What works on rows and columns. Most of it is bound by memory: neighbouring threads
               read neighbouring numbers, 16 bytes each where rows allow it.
   ---------------------------------------------------------------------------------------------- */

/* 16 bytes, which a thread reads at once. */
#define EQNN__PACK ((int)(16 / sizeof(eqnn_real)))
typedef struct __align__(16) eqnn__pack { eqnn_real v[16 / sizeof(eqnn_real)]; } eqnn__pack;

static int eqnn__packs(const void *p, size_t stride)
{
    return (uintptr_t)p % 16 == 0 && stride % (size_t)EQNN__PACK == 0;
}

/* i / n; half the instructions where 32 bits are enough, which is the same for all threads. */
static __device__ __forceinline__ size_t eqnn__over(size_t i, size_t n, int few)
{
    return few ? (size_t)((uint32_t)i / (uint32_t)n) : i / n;
}

static int eqnn__few(size_t n)
{
    return n <= 0xffffffffu;
}

/* 16 bytes that no kernel writes while this one reads them. */
static __device__ __forceinline__ eqnn__pack eqnn__pack_at(const eqnn_real *p)
{
#ifndef __CUDA_ARCH__
    return *(const eqnn__pack *)(const void *)p;
#elif defined(EQNN_DOUBLE)
    double2 v = __ldg((const double2 *)(const void *)p);
    return {{v.x, v.y}};
#else
    float4 v = __ldg((const float4 *)(const void *)p);
    return {{v.x, v.y, v.z, v.w}};
#endif
}

/* C neighbouring numbers: one, or 16 bytes at once. */
template <int C>
__device__ __forceinline__ void eqnn__channels_in(const eqnn_real *from, eqnn_real (&x)[C])
{
    if constexpr (C == 1) {
        x[0] = __ldg(from);
    } else {
        eqnn__pack v = eqnn__pack_at(from);
#pragma unroll
        for (int c = 0; c < C; c++) x[c] = v.v[c];
    }
}

template <int C>
__device__ __forceinline__ void eqnn__channels_out(const eqnn_real (&x)[C], eqnn_real *to)
{
    if constexpr (C == 1) {
        to[0] = x[0];
    } else {
        eqnn__pack v;
#pragma unroll
        for (int c = 0; c < C; c++) v.v[c] = x[c];
        *(eqnn__pack *)(void *)to = v;
    }
}

/* Adds what stands at `from`, which this kernel may have written. */
template <int C>
__device__ __forceinline__ void eqnn__channels_add(const eqnn_real *from, eqnn_real (&x)[C])
{
    if constexpr (C == 1) {
        x[0] += from[0];
    } else {
        eqnn__pack v = *(const eqnn__pack *)(const void *)from;
#pragma unroll
        for (int c = 0; c < C; c++) x[c] += v.v[c];
    }
}

/* ---- functions of one, two and three numbers ----

   A thread takes 16 bytes at a time, of the operands and of the result, or one number where rows do
   not lie so. Bytes: every operand and the result once. Which function it is the compiler knows:
   a switch in the kernel would cost the registers of the most expensive case in all of them. */

typedef struct eqnn__map_args {
    eqnn__in in[3];
    size_t rows, cols, n, width, units; /* numbers a thread takes at a time; how many such are */
    int operands, few, packs;           /* bit s: operand s is read 16 bytes at a time         */
    eqnn_real p0, p1, *out;
} eqnn__map_args;

/* The first m numbers of operand s from (r, c) on. */
static __device__ __forceinline__ eqnn__pack eqnn__map_load(const eqnn__map_args &j, int s,
                                                            size_t r, size_t c, int m)
{
    const eqnn__in in = j.in[s];
    const eqnn_real *p = in.p + r * in.rs + c * in.cs;
    eqnn__pack v;
    if ((j.packs >> s & 1) && m == EQNN__PACK) return *(const eqnn__pack *)(const void *)p;
#pragma unroll
    for (int k = 0; k < EQNN__PACK; k++) v.v[k] = p[k < m ? (size_t)k * in.cs : 0];
    return v;
}

static __device__ __forceinline__ void eqnn__map_store(const eqnn__pack &v, int m, eqnn_real *p)
{
    if (m == EQNN__PACK) {
        *(eqnn__pack *)(void *)p = v;
        return;
    }
#pragma unroll
    for (int k = 0; k < EQNN__PACK; k++)
        if (k < m) p[k] = v.v[k];
}

/* One function of one number; KIND is known, so that one case of the switch is left. */
template <int KIND>
static __device__ __forceinline__ eqnn_real eqnn__map_one(const eqnn__fn &f, eqnn_real x)
{
    if (KIND == EQNN__F_SCALAR) return (eqnn_real)eqnn__fn_scalar(&f, (double)x);
    if ((KIND == EQNN__F_SINE || KIND == EQNN__F_SINC || KIND == EQNN__F_SINC_N) &&
        !(f.high < HUGE_VAL) && eqnn__fabs_1(x) > EQNN__SINE_LIMIT)
        return eqnn__sine_far_1(&f, x);
    return eqnn__unary_1(KIND, &f, x);
}

/* f(a), times b where there is one. */
template <int KIND>
static __global__ void eqnn__map_kernel(const __grid_constant__ eqnn__map_args j,
                                        const __grid_constant__ eqnn__fn f)
{
    EQNN__STRIDE(q, j.units) {
        size_t i = q * j.width, r = j.rows > 1 ? eqnn__over(i, j.cols, j.few) : 0;
        int m = j.n - i < j.width ? (int)(j.n - i) : (int)j.width;
        eqnn__pack a = eqnn__map_load(j, 0, r, i - r * j.cols, m), b;
        if (j.operands > 1) b = eqnn__map_load(j, 1, r, i - r * j.cols, m);
#pragma unroll
        for (int k = 0; k < EQNN__PACK; k++) {
            if (k >= m) continue;
            a.v[k] = eqnn__map_one<KIND>(f, a.v[k]);
            if (j.operands > 1) a.v[k] *= b.v[k];
        }
        eqnn__map_store(a, m, j.out + i);
    }
}

template <int OP>
static __device__ __forceinline__ eqnn_real eqnn__nary_one(const eqnn__map_args &j, eqnn_real a,
                                                           eqnn_real b, eqnn_real c)
{
    return eqnn__nary_1(OP, a, b, c, j.p0, j.p1);
}

template <int OP>
static __global__ void eqnn__nary_kernel(const __grid_constant__ eqnn__map_args j)
{
    const int operands = OP == EQNN__SCALE ? 1 : OP < EQNN__WHERE ? 2 : 3;
    EQNN__STRIDE(q, j.units) {
        size_t i = q * j.width, r = j.rows > 1 ? eqnn__over(i, j.cols, j.few) : 0;
        size_t c = i - r * j.cols;
        int m = j.n - i < j.width ? (int)(j.n - i) : (int)j.width;
        eqnn__pack v[3];
#pragma unroll
        for (int s = 0; s < 3; s++) v[s] = s < operands ? eqnn__map_load(j, s, r, c, m) : v[0];
#pragma unroll
        for (int k = 0; k < EQNN__PACK; k++)
            if (k < m) v[0].v[k] = eqnn__nary_one<OP>(j, v[0].v[k], v[1].v[k], v[2].v[k]);
        eqnn__map_store(v[0], m, j.out + i);
    }
}

static void eqnn__map_one_run(eqnn__device *d, const eqnn__map_args *j, const eqnn__fn *f)
{
    size_t grid = eqnn__grid_of(j->units);
#define EQNN__CASE(kind) \
    case kind: EQNN__RUN(d, eqnn__map_kernel<kind>, grid, EQNN__BLOCK, 0, *j, *f); break;
    switch (f->kind) {
    EQNN__CASE(EQNN__F_POLY)
    EQNN__CASE(EQNN__F_PIECES)
    EQNN__CASE(EQNN__F_EXP)
    EQNN__CASE(EQNN__F_ELU)
    EQNN__CASE(EQNN__F_LOG)
    EQNN__CASE(EQNN__F_SINE)
    EQNN__CASE(EQNN__F_SINC)
    EQNN__CASE(EQNN__F_SINC_N)
    EQNN__CASE(EQNN__F_TANH)
    EQNN__CASE(EQNN__F_SIGMOID)
    EQNN__CASE(EQNN__F_LOGISTIC)
    EQNN__CASE(EQNN__F_SILU)
    EQNN__CASE(EQNN__F_SILU_1)
    EQNN__CASE(EQNN__F_SILU_N)
    EQNN__CASE(EQNN__F_SOFTPLUS)
    EQNN__CASE(EQNN__F_SSP)
    EQNN__CASE(EQNN__F_ERF)
    EQNN__CASE(EQNN__F_GELU)
    EQNN__CASE(EQNN__F_GELU_1)
    EQNN__CASE(EQNN__F_GAUSS)
    EQNN__CASE(EQNN__F_SUS)
    EQNN__CASE(EQNN__F_CLAMP)
    EQNN__CASE(EQNN__F_HUBER)
    EQNN__CASE(EQNN__F_ROOT)
    EQNN__CASE(EQNN__F_SCALAR)
    }
#undef EQNN__CASE
}

static void eqnn__nary_run(eqnn__device *d, int op, const eqnn__map_args *j)
{
    size_t grid = eqnn__grid_of(j->units);
#define EQNN__CASE(op) \
    case op: EQNN__RUN(d, eqnn__nary_kernel<op>, grid, EQNN__BLOCK, 0, *j); break;
    switch (op) {
    EQNN__CASE(EQNN__ADD)
    EQNN__CASE(EQNN__SUB)
    EQNN__CASE(EQNN__MUL)
    EQNN__CASE(EQNN__DIV)
    EQNN__CASE(EQNN__AXPBY)
    EQNN__CASE(EQNN__SCALE)
    EQNN__CASE(EQNN__ATAN2)
    EQNN__CASE(EQNN__LESS)
    EQNN__CASE(EQNN__EQUAL)
    EQNN__CASE(EQNN__MIN)
    EQNN__CASE(EQNN__MAX_OF)
    EQNN__CASE(EQNN__WHERE)
    EQNN__CASE(EQNN__FMA)
    }
#undef EQNN__CASE
}

static void eqnn__cuda_map(eqnn__device *d, int op, int order, size_t rows, size_t cols, eqnn__in a,
                           eqnn__in b, eqnn__in c, double p0, double p1, eqnn_real *out)
{
    eqnn__map_args j;
    eqnn__fn f;
    if (rows == 0 || cols == 0) return;
    memset(&j, 0, sizeof j); /* padding, too: lists are compared byte by byte */
    j.operands = op < EQNN__WHERE ? 2 : 3;
    if (op == EQNN__SCALE || (op < EQNN__ADD && !b.p)) j.operands = 1;
    j.in[0] = a;
    j.in[1] = j.operands > 1 ? b : a;
    j.in[2] = j.operands > 2 ? c : a;
    for (int s = 0; s < 3 && cols == 1; s++) j.in[s].cs = j.in[s].rs; /* a column is a row */
    if (cols == 1) cols = rows, rows = 1;
    if (eqnn__map_plain(&j.in[0], rows, cols) && eqnn__map_plain(&j.in[1], rows, cols) &&
        eqnn__map_plain(&j.in[2], rows, cols))
        cols *= rows, rows = 1;
    j.rows = rows;
    j.cols = cols;
    j.n = rows * cols;
    j.few = eqnn__few(j.n);
    j.width = (rows == 1 || cols % (size_t)EQNN__PACK == 0) && eqnn__packs(out, 0)
                  ? (size_t)EQNN__PACK : 1;
    j.units = (j.n + j.width - 1) / j.width;
    j.packs = 0;
    for (int s = 0; s < j.operands; s++)
        if (j.in[s].cs == 1 && eqnn__packs(j.in[s].p, rows == 1 ? 0 : j.in[s].rs))
            j.packs |= 1 << s;
    j.p0 = (eqnn_real)p0;
    j.p1 = (eqnn_real)p1;
    j.out = out;
    if (op >= EQNN__ADD) {
        eqnn__nary_run(d, op, &j);
        return;
    }
    memset(&f, 0, sizeof f);
    eqnn__fn_make(&f, op, order, p0, p1);
    eqnn__map_one_run(d, &j, &f);
}

/* ---- random numbers, check ---- */

static __global__ void eqnn__random_kernel(int kind, uint64_t stream, size_t n, double p,
                                           eqnn_real *out)
{
    EQNN__STRIDE(i, n) {
        if (kind == EQNN__NORMAL) {
            out[i] = (eqnn_real)eqnn__normal(stream, i);
        } else {
            double u = (double)(eqnn__random_bits(stream, i) >> EQNN__TERMS(40, 11));
            u *= EQNN__TERMS(1.0 / 16777216.0, 1.0 / 9007199254740992.0);
            out[i] = (eqnn_real)(kind == EQNN__UNIFORM ? u : u < p ? 0 : 1 / (1 - p));
        }
    }
}

static void eqnn__cuda_random(eqnn__device *d, int kind, uint64_t key, uint64_t tick, size_t n,
                              double p, eqnn_real *out)
{
    uint64_t stream = eqnn__stream(key, tick);
    EQNN__RUN(d, eqnn__random_kernel, eqnn__grid_of(n), EQNN__BLOCK, 0, kind, stream, n, p, out);
}

/* The mark is the smallest of (step << 48 | address) of numbers that are not finite, so it does not
   depend on who comes first; all bits set: there was none. */
static __global__ void eqnn__check_kernel(size_t n, const eqnn_real *x, unsigned long long step,
                                          unsigned long long *mark)
{
    unsigned long long first = EQNN__UNMARKED;
    EQNN__STRIDE(i, n) {
        eqnn_real v = x[i];
        unsigned long long at = step | ((unsigned long long)(uintptr_t)(x + i) & EQNN__ADDRESS);
        if (!(v - v == 0) && at < first) first = at;
    }
    if (first != EQNN__UNMARKED) atomicMin(mark, first);
}

static void eqnn__cuda_check(eqnn__device *d, size_t n, const eqnn_real *x)
{
    eqnn__gpu *g = eqnn__gpu_of(d);
    int64_t later = 0;
    if (g->checks++ == 0) g->first_step = d->step;
    if (d->step > g->first_step) later = d->step - g->first_step;
    if (later > 0xfffe) later = 0xfffe;
    EQNN__RUN(d, eqnn__check_kernel, eqnn__grid_of(n), EQNN__BLOCK, 0, n, x,
              (unsigned long long)later << 48, g->mark);
}

/* ---- folds ----

   A block's threads form teams. A team owns `wide` neighbouring columns of one segment and goes
   through its rows `deep` at a time; both are powers of two, chosen by sizes alone. Its threads'
   results meet by shuffles, by which the lanes of a warp read each other's registers, then, where a
   team is more than a warp, in shared memory. Bytes: a sum reads x once; what goes through a
   segment again (softmax, largest, standard) finds it in a cache unless it is long. */

typedef struct eqnn__fold_args {
    int op, wide, deep;
    size_t n, cols, groups;       /* segments, columns, teams that share a segment */
    const int *first, *order;     /* given segments; or first NULL: the runs       */
    size_t length, chunk, per;    /* of at most chunk rows, per to each of length  */
    const eqnn_real *x, *with;    /* with: x times these, or NULL                  */
    eqnn_real *out;
} eqnn__fold_args;

/* Where this thread stands: the rows begin <= r < end of its segment, its column; none: there is
   no such segment or column (it goes along, because all meet at barriers). */
typedef struct eqnn__spot { size_t segment, begin, end, column; int row, none; } eqnn__spot;

static __device__ __forceinline__ eqnn__spot eqnn__fold_place(const eqnn__fold_args &j)
{
    eqnn__spot p;
    int size = j.wide * j.deep, t = (int)threadIdx.x;
    size_t unit = (size_t)blockIdx.x * (size_t)(EQNN__BLOCK / size) + (size_t)(t / size);
    p.segment = unit / j.groups;
    p.column = unit % j.groups * (size_t)j.wide + (size_t)(t % j.wide);
    p.row = t / j.wide % j.deep;
    p.none = p.segment >= j.n || p.column >= j.cols;
    p.begin = p.end = 0;
    if (p.none) return p;
    if (j.first) {
        p.begin = (size_t)j.first[p.segment];
        p.end = (size_t)j.first[p.segment + 1];
    } else {
        size_t start = p.segment / j.per * j.length, at = p.segment % j.per * j.chunk;
        p.begin = start + at;
        p.end = start + (j.length - at < j.chunk ? j.length : at + j.chunk);
    }
    return p;
}

static __device__ __forceinline__ size_t eqnn__fold_at(const eqnn__fold_args &j, size_t row,
                                                       size_t column)
{
    return (j.order ? (size_t)j.order[row] : row) * j.cols + column;
}

template <typename T>
static __device__ __forceinline__ T eqnn__fold_two(int op, T a, T b)
{
    return op == EQNN__MAX ? (a < b || b != b ? b : a) : a + b; /* NaN stays */
}

template <typename T>
static __device__ __forceinline__ T eqnn__shuffle(T v, int k)
{
    return __shfl_xor_sync(EQNN__ALL, v, k);
}

/* A number and its place in a segment, which decides between equals. */
typedef struct eqnn__peak { eqnn_real v; int at; } eqnn__peak;

static __device__ __forceinline__ eqnn__peak eqnn__fold_two(int, eqnn__peak a, eqnn__peak b)
{
    return b.v > a.v || (!(a.v > b.v) && b.at < a.at) ? b : a;
}

static __device__ __forceinline__ eqnn__peak eqnn__shuffle(eqnn__peak p, int k)
{
    p.v = eqnn__shuffle(p.v, k);
    p.at = eqnn__shuffle(p.at, k);
    return p;
}

/* The fold of what the threads of a column hold, to all of them. shared: EQNN__BLOCK numbers. */
template <typename T>
static __device__ __forceinline__ T eqnn__team(int op, int wide, int deep, T v, T *shared)
{
    int t = (int)threadIdx.x, size = wide * deep;
    for (int k = wide; k < size && k < 32; k *= 2)
        v = eqnn__fold_two(op, v, eqnn__shuffle(v, k));
    if (size <= 32) return v;
    shared[t] = v;
    __syncthreads();
    int at = t / size * size + t % 32;
    v = shared[at];
    for (int k = 32; k < size; k += 32) v = eqnn__fold_two(op, v, shared[at + k]);
    __syncthreads();
    return v;
}

static __device__ __forceinline__ eqnn_real eqnn__fold_read(const eqnn__fold_args &j, size_t row,
                                                            size_t column)
{
    size_t at = eqnn__fold_at(j, row, column);
    return j.with ? j.x[at] * j.with[at] : j.x[at];
}

/* Sums are taken in blocks of 64, so that their error does not grow with the number of rows. */
static __device__ __forceinline__ eqnn_real eqnn__fold_mine(const eqnn__fold_args &j,
                                                            const eqnn__spot &p)
{
    eqnn_real all = j.op == EQNN__MAX ? -(eqnn_real)HUGE_VAL : 0;
    size_t step = (size_t)j.deep;
    for (size_t r = p.begin + (size_t)p.row; r < p.end;) {
        size_t stop = (p.end - r) / step > 63 ? r + 64 * step : p.end;
        eqnn_real part = j.op == EQNN__MAX ? all : 0;
#pragma unroll 4
        for (; r < stop; r += step)
            part = eqnn__fold_two(j.op, part, eqnn__fold_read(j, r, p.column));
        all = j.op == EQNN__MAX ? part : all + part;
    }
    return all;
}

static __global__ void eqnn__fold_kernel(const __grid_constant__ eqnn__fold_args j)
{
    EQNN_SHARED(eqnn_real, shared);
    eqnn__spot p = eqnn__fold_place(j);
    eqnn_real v = eqnn__team(j.op, j.wide, j.deep, eqnn__fold_mine(j, p), shared);
    if (p.none || p.row > 0) return;
    j.out[p.segment * j.cols + p.column] = p.begin == p.end ? 0 : v;
}

/* Columns of a team; and how many rows at a time it takes when a segment has that many, more where
   there are few columns in all. */
static void eqnn__fold_shape(eqnn__fold_args *j, size_t rows)
{
    size_t threads = (size_t)1 << 17;
    for (j->wide = 1; j->wide < 32 && (size_t)j->wide < j->cols;) j->wide *= 2;
    j->groups = (j->cols + (size_t)j->wide - 1) / (size_t)j->wide;
    for (j->deep = 1; j->deep * j->wide < EQNN__BLOCK && (size_t)j->deep * 2 <= rows;) {
        if (j->deep * j->wide >= 32 && j->n * j->groups * (size_t)(j->wide * j->deep) >= threads)
            break;
        j->deep *= 2;
    }
}

static size_t eqnn__fold_grid(const eqnn__fold_args *j)
{
    size_t teams = (size_t)(EQNN__BLOCK / (j->wide * j->deep));
    return (j->n * j->groups + teams - 1) / teams;
}

static void eqnn__fold_run(eqnn__device *d, const eqnn__fold_args *j)
{
    size_t grid = eqnn__fold_grid(j);
    EQNN__RUN(d, eqnn__fold_kernel, grid, EQNN__BLOCK, EQNN__BLOCK * sizeof(eqnn_real), *j);
}

/* rows runs of length rows each -> a row for each; long runs in two stages. */
static void eqnn__fold_runs(eqnn__device *d, int op, size_t rows, size_t length, size_t cols,
                            const eqnn_real *x, const eqnn_real *with, eqnn_real *out)
{
    eqnn__fold_args j;
    memset(&j, 0, sizeof j);
    j.op = op, j.cols = cols, j.x = x, j.with = with, j.out = out;
    j.length = length;
    j.chunk = length / 1024 > 512 ? (length + 1023) / 1024 : 512;
    j.per = length > 2 * j.chunk ? (length + j.chunk - 1) / j.chunk : 1;
    if (j.per > 1 && rows * cols > 65536) j.per = 1; /* there is work enough without cutting */
    if (j.per == 1) {
        j.chunk = length;
        j.n = rows;
        eqnn__fold_shape(&j, length);
        eqnn__fold_run(d, &j);
        return;
    }
    eqnn_real *part = (eqnn_real *)eqnn__scratch(d, EQNN__SCRATCH_FOLD,
                                                 rows * j.per * cols * sizeof *part);
    size_t per = j.per;
    if (!part) return;
    j.n = rows * per;
    j.out = part;
    eqnn__fold_shape(&j, j.chunk);
    eqnn__fold_run(d, &j);
    j.x = part, j.with = NULL, j.out = out;
    j.n = rows;
    j.length = j.chunk = per;
    j.per = 1;
    eqnn__fold_shape(&j, per);
    eqnn__fold_run(d, &j);
}

static void eqnn__cuda_fold_rows(eqnn__device *d, int op, size_t rows, size_t cols,
                                 const eqnn_real *x, eqnn_real *out)
{
    if (cols > 0) eqnn__fold_runs(d, op, 1, rows, cols, x, NULL, out);
}

static void eqnn__cuda_dot_rows(eqnn__device *d, size_t rows, size_t cols, const eqnn_real *x,
                                const eqnn_real *y, eqnn_real *out)
{
    if (cols > 0) eqnn__fold_runs(d, EQNN__SUM, 1, rows, cols, x, y, out);
}

static void eqnn__cuda_fold_cols(eqnn__device *d, int op, size_t rows, size_t cols,
                                 const eqnn_real *x, eqnn_real *out)
{
    if (rows > 0) eqnn__fold_runs(d, op, rows, cols, 1, x, NULL, out);
}

/* n segments of rows; first NULL: each of n rows is a segment, of numbers. How long given segments
   are is known on the device only: many of them are taken to be short. */
static void eqnn__segments(eqnn__fold_args *j, size_t n, const int *first, const int *order,
                           size_t cols, const eqnn_real *x, eqnn_real *out)
{
    memset(j, 0, sizeof *j);
    j->n = n, j->first = first, j->order = order;
    j->cols = first ? cols : 1, j->x = x, j->out = out;
    j->length = j->chunk = first ? 0 : cols;
    j->per = 1;
    eqnn__fold_shape(j, !first ? cols : n > 65536 ? 4 : 256);
}

static void eqnn__cuda_fold_segments(eqnn__device *d, int op, size_t n, const int *first,
                                     const int *order, size_t cols, const eqnn_real *x,
                                     eqnn_real *out)
{
    eqnn__fold_args j;
    if (n == 0 || cols == 0) return;
    eqnn__segments(&j, n, first, order, cols, x, out);
    j.op = op;
    eqnn__fold_run(d, &j);
}

/* Sums in double: at most 1024 blocks of a fixed share each, then one block for their sums. */
static __global__ void eqnn__total_kernel(int squares, size_t n, size_t share, const eqnn_real *x,
                                          double *part)
{
    EQNN_SHARED(double, shared);
    size_t begin = (size_t)blockIdx.x * share, end = n - begin < share ? n : begin + share;
    double sum = 0;
#pragma unroll 4
    for (size_t i = begin + threadIdx.x; i < end; i += EQNN__BLOCK) {
        double v = (double)x[i];
        sum += squares ? v * v : v;
    }
    sum = eqnn__team(EQNN__SUM, 1, EQNN__BLOCK, sum, shared);
    if (threadIdx.x == 0) part[blockIdx.x] = sum;
}

static __global__ void eqnn__total_end_kernel(size_t n, const double *part, double *out, int add)
{
    EQNN_SHARED(double, shared);
    double sum = 0;
    for (size_t i = threadIdx.x; i < n; i += EQNN__BLOCK) sum += part[i];
    sum = eqnn__team(EQNN__SUM, 1, EQNN__BLOCK, sum, shared);
    if (threadIdx.x == 0) *out = add ? *out + sum : sum;
}

static void eqnn__cuda_total(eqnn__device *d, int squares, size_t n, const eqnn_real *x,
                             double *out, int add)
{
    size_t share = n / 1024 > 4096 ? (n + 1023) / 1024 : 4096, parts = (n + share - 1) / share;
    double *part = (double *)eqnn__scratch(d, EQNN__SCRATCH_FOLD, 1025 * sizeof *part);
    size_t shared = EQNN__BLOCK * sizeof(double);
    if (!part) return;
    EQNN__RUN(d, eqnn__total_kernel, parts, EQNN__BLOCK, shared, squares, n, share, x, part);
    EQNN__RUN(d, eqnn__total_end_kernel, 1, EQNN__BLOCK, shared, parts, (const double *)part, out,
              add);
}

/* exp(x - max) / sum of the same, over each segment. */
static __global__ void eqnn__softmax_kernel(const __grid_constant__ eqnn__fold_args j)
{
    EQNN_SHARED(eqnn_real, shared);
    eqnn__spot p = eqnn__fold_place(j);
    size_t from = p.begin + (size_t)p.row, step = (size_t)j.deep;
    eqnn_real most = eqnn__team((int)EQNN__MAX, j.wide, j.deep, eqnn__fold_mine(j, p), shared);
    eqnn_real sum = 0;
    for (size_t r = from; r < p.end; r += step) {
        size_t at = eqnn__fold_at(j, r, p.column);
        eqnn_real y = eqnn__exp_down_1(j.x[at] - most);
        j.out[at] = y;
        sum += y;
    }
    sum = 1 / eqnn__team((int)EQNN__SUM, j.wide, j.deep, sum, shared);
    for (size_t r = from; r < p.end; r += step) j.out[eqnn__fold_at(j, r, p.column)] *= sum;
}

static void eqnn__cuda_softmax(eqnn__device *d, size_t n, const int *first, const int *order,
                               size_t cols, const eqnn_real *x, eqnn_real *out)
{
    eqnn__fold_args j;
    if (n == 0 || cols == 0) return;
    eqnn__segments(&j, n, first, order, cols, x, out);
    j.op = EQNN__MAX;
    size_t grid = eqnn__fold_grid(&j);
    EQNN__RUN(d, eqnn__softmax_kernel, grid, EQNN__BLOCK, EQNN__BLOCK * sizeof(eqnn_real), j);
}

/* NaN is passed over by comparisons; one that begins the segment is looked at in the end. */
static __global__ void eqnn__largest_kernel(const __grid_constant__ eqnn__fold_args j,
                                            eqnn_real *at, eqnn_real *mask)
{
    EQNN_SHARED(eqnn__peak, shared);
    eqnn__spot p = eqnn__fold_place(j);
    eqnn__peak best = {-(eqnn_real)HUGE_VAL, INT_MAX};
    size_t from = p.begin + (size_t)p.row, step = (size_t)j.deep;
    for (size_t r = from; r < p.end; r += step) {
        eqnn_real v = j.x[eqnn__fold_at(j, r, p.column)];
        int here = (int)(r - p.begin);
        if (v > best.v || (v >= best.v && here < best.at)) best.v = v, best.at = here;
    }
    best = eqnn__team(0, j.wide, j.deep, best, shared);
    if (p.none) return;
    if (p.begin < p.end) {
        eqnn_real v = j.x[eqnn__fold_at(j, p.begin, p.column)];
        if (v != v) best.at = 0;
    }
    for (size_t r = from; mask && r < p.end; r += step)
        mask[eqnn__fold_at(j, r, p.column)] = (int)(r - p.begin) == best.at ? 1 : 0;
    if (at && p.row == 0)
        at[p.segment * j.cols + p.column] = p.begin < p.end ? (eqnn_real)best.at : 0;
}

static void eqnn__cuda_largest(eqnn__device *d, size_t n, const int *first, const int *order,
                               size_t cols, const eqnn_real *x, eqnn_real *at, eqnn_real *mask)
{
    eqnn__fold_args j;
    if (n == 0 || cols == 0) return;
    eqnn__segments(&j, n, first, order, cols, x, NULL);
    size_t grid = eqnn__fold_grid(&j);
    EQNN__RUN(d, eqnn__largest_kernel, grid, EQNN__BLOCK, EQNN__BLOCK * sizeof(eqnn__peak), j, at,
              mask);
}

/* y = r c, c = x - mean, r = (variance + eps)^(-1/2);  dx = r (g - mean g - c r^2 mean(g c)) */
static __global__ void eqnn__standard_kernel(const __grid_constant__ eqnn__fold_args j, size_t ldg,
                                             size_t ldo, eqnn_real eps, const eqnn_real *g)
{
    EQNN_SHARED(eqnn_real, shared);
    eqnn__spot p = eqnn__fold_place(j);
    size_t n = j.length, from = (size_t)p.row, end = p.none ? 0 : n, step = (size_t)j.deep;
    const eqnn_real *x = j.x + p.segment * n, *u = g ? g + p.segment * ldg : NULL;
    eqnn_real over = 1 / (eqnn_real)n, sum = 0, v = 0, a = 0, b = 0;
    for (size_t i = from; i < end; i += step) sum += x[i];
    eqnn_real mean = eqnn__team((int)EQNN__SUM, 1, j.deep, sum, shared) * over;
    for (size_t i = from; i < end; i += step) {
        eqnn_real c = x[i] - mean;
        v += c * c;
        if (u) a += u[i], b += u[i] * c;
    }
    v = eqnn__team((int)EQNN__SUM, 1, j.deep, v, shared);
    eqnn_real r = 1 / (eqnn_real)sqrt((double)(v * over + eps));
    if (g) {
        a = eqnn__team((int)EQNN__SUM, 1, j.deep, a, shared) * over * r;
        b = eqnn__team((int)EQNN__SUM, 1, j.deep, b, shared) * over * r * r * r;
    }
    eqnn_real *y = j.out + p.segment * ldo;
    for (size_t i = from; i < end; i += step)
        y[i] = u ? u[i] * r - ((x[i] - mean) * b + a) : (x[i] - mean) * r;
    if (!g && ldo > n && end > 0 && from == 0) y[n] = 1;
}

static void eqnn__cuda_standard(eqnn__device *d, size_t rows, size_t cols, int one, double eps,
                                const eqnn_real *x, const eqnn_real *g, eqnn_real *out)
{
    eqnn__fold_args j;
    size_t wide = cols + (size_t)one;
    if (rows == 0 || cols == 0) return;
    eqnn__segments(&j, rows, NULL, NULL, cols, x, out);
    size_t grid = eqnn__fold_grid(&j);
    EQNN__RUN(d, eqnn__standard_kernel, grid, EQNN__BLOCK, EQNN__BLOCK * sizeof(eqnn_real), j, wide,
              g ? cols : wide, (eqnn_real)eps, g);
}

/* ---- moving rows and columns ----

   A thread writes one number or 16 bytes. Bytes: all that is moved is read once and written once;
   a list of rows is read once for a whole row, a list of columns stays in the caches. */

typedef struct eqnn__move_args {
    size_t n, per, width, ldx, ldo; /* takings in all, in a row; numbers of one */
    int few;
    const int *first, *list;
    const eqnn_real *x;
    eqnn_real *out;
} eqnn__move_args;

template <int OP>
static __device__ __forceinline__ void eqnn__move_one(const eqnn__move_args &j, const eqnn_real *x,
                                                      size_t c, eqnn_real *y)
{
    eqnn_real sum = 0;
    if (OP == EQNN__MOVE_TAKE_COLS) {
        y[c] = x[j.list[c]];
    } else if (OP == EQNN__MOVE_ADD_COLS) {
        for (int k = j.first[c]; k < j.first[c + 1]; k++) sum += x[j.list[k]];
        y[c] = sum;
    } else if (j.width == 1) {
        y[c] = OP == EQNN__MOVE_ADD ? y[c] + x[c] : x[c];
    } else {
        eqnn__pack v = *(const eqnn__pack *)(const void *)(x + c);
        eqnn__pack *to = (eqnn__pack *)(void *)(y + c);
        if (OP == EQNN__MOVE_ADD)
            for (int k = 0; k < EQNN__PACK; k++) v.v[k] += to->v[k];
        *to = v;
    }
}

template <int OP>
static __global__ void eqnn__move_kernel(const __grid_constant__ eqnn__move_args j)
{
    EQNN__STRIDE(q, j.n) {
        size_t r = eqnn__over(q, j.per, j.few), c = (q - r * j.per) * j.width;
        const eqnn_real *x = j.x + (OP == EQNN__MOVE_TAKE ? (size_t)j.list[r] : r) * j.ldx;
        eqnn__move_one<OP>(j, x, c, j.out + r * j.ldo);
    }
}

static void eqnn__cuda_move(eqnn__device *d, int op, size_t rows, size_t cols, const int *first,
                            const int *list, const eqnn_real *x, size_t ldx, eqnn_real *out,
                            size_t ldo)
{
    eqnn__move_args j;
    if (rows == 0 || cols == 0) return;
    memset(&j, 0, sizeof j);
    j.first = first, j.list = list;
    j.x = x, j.ldx = ldx, j.out = out, j.ldo = ldo;
    int whole = cols % (size_t)EQNN__PACK == 0 && op <= EQNN__MOVE_ADD;
    j.width = whole && eqnn__packs(x, ldx) && eqnn__packs(out, ldo) ? (size_t)EQNN__PACK : 1;
    j.per = cols / j.width;
    j.n = rows * j.per;
    j.few = eqnn__few(j.n);
    size_t grid = eqnn__grid_of(j.n);
#define EQNN__CASE(op) \
    case op: EQNN__RUN(d, eqnn__move_kernel<op>, grid, EQNN__BLOCK, 0, j); break;
    switch (op) {
    EQNN__CASE(EQNN__MOVE_TAKE)
    EQNN__CASE(EQNN__MOVE_COPY)
    EQNN__CASE(EQNN__MOVE_ADD)
    EQNN__CASE(EQNN__MOVE_TAKE_COLS)
    EQNN__CASE(EQNN__MOVE_ADD_COLS)
    }
#undef EQNN__CASE
}

static void eqnn__cuda_take_rows(eqnn__device *d, size_t n, size_t cols, const int *index,
                                 const eqnn_real *x, eqnn_real *out)
{
    eqnn__cuda_move(d, EQNN__MOVE_TAKE, n, cols, NULL, index, x, cols, out, cols);
}

static void eqnn__cuda_copy2d(eqnn__device *d, size_t rows, size_t cols, const eqnn_real *src,
                              size_t lds, eqnn_real *dst, size_t ldd, int add)
{
    int op = add ? EQNN__MOVE_ADD : EQNN__MOVE_COPY;
    size_t n = rows * cols, rest = n % (size_t)EQNN__PACK;
    if (n == 0) return;
    if (rows > 1 && (lds != cols || ldd != cols)) {
        eqnn__cuda_move(d, op, rows, cols, NULL, NULL, src, lds, dst, ldd);
    } else if (!add) {
        eqnn__cuda_copy(d, dst, src, n * sizeof *dst, EQNN__WITHIN);
    } else {
        eqnn__cuda_move(d, op, 1, n - rest, NULL, NULL, src, 0, dst, 0);
        eqnn__cuda_move(d, op, 1, rest, NULL, NULL, src + n - rest, 0, dst + n - rest, 0);
    }
}

static void eqnn__cuda_take_cols(eqnn__device *d, size_t rows, size_t n, const int *map,
                                 const eqnn_real *x, size_t ldx, eqnn_real *out)
{
    eqnn__cuda_move(d, EQNN__MOVE_TAKE_COLS, rows, n, NULL, map, x, ldx, out, n);
}

static void eqnn__cuda_add_cols(eqnn__device *d, size_t rows, size_t n, const int *first,
                                const int *list, const eqnn_real *x, size_t ldx, eqnn_real *out)
{
    eqnn__cuda_move(d, EQNN__MOVE_ADD_COLS, rows, n, first, list, x, ldx, out, n);
}

/* A block turns a square of 32 by 32 in shared memory, so that a warp reads and writes a row of it:
   otherwise it would need 32 pieces of memory for 32 numbers, on one of the two sides. Rows of 33
   keep the numbers of a column in different banks. */
static __global__ void eqnn__transpose_kernel(size_t rows, size_t cols, size_t across,
                                              const eqnn_real *x, eqnn_real *out)
{
    EQNN_SHARED(eqnn_real, tile);
    size_t r0 = blockIdx.x / across * 32, c0 = blockIdx.x % across * 32;
    unsigned lane = threadIdx.x % 32, row = threadIdx.x / 32;
    for (unsigned k = row; k < 32; k += EQNN__BLOCK / 32)
        if (r0 + k < rows && c0 + lane < cols) tile[k * 33 + lane] = x[(r0 + k) * cols + c0 + lane];
    __syncthreads();
    for (unsigned k = row; k < 32; k += EQNN__BLOCK / 32)
        if (c0 + k < cols && r0 + lane < rows)
            out[(c0 + k) * rows + r0 + lane] = tile[lane * 33 + k];
}

static void eqnn__cuda_transpose(eqnn__device *d, size_t rows, size_t cols, const eqnn_real *x,
                                 eqnn_real *out)
{
    size_t across = (cols + 31) / 32, grid = across * ((rows + 31) / 32);
    EQNN__RUN(d, eqnn__transpose_kernel, grid, EQNN__BLOCK, 32 * 33 * sizeof *x, rows, cols, across,
              x, out);
}

/* ---- matrix product ---- */

typedef struct eqnn__product {
    int ta, tb;
    size_t m, n, k, lda, sa, ldb, sb, ldc, sc, batch;
    double alpha, beta;
    const eqnn_real *A, *B;
    eqnn_real *C;
} eqnn__product;

/* The definition; for what cuBLAS does not take: nothing to sum, and rows that overlap. */
static __global__ void eqnn__gemm_kernel(const __grid_constant__ eqnn__product p)
{
    size_t ai = p.ta ? 1 : p.lda, ak = p.ta ? p.lda : 1, bk = p.tb ? 1 : p.ldb;
    size_t bj = p.tb ? p.ldb : 1, area = p.m * p.n, sums = p.sc == 0 ? p.batch : 1;
    EQNN__STRIDE(q, area * (p.batch / sums)) {
        size_t b = q / area, i = q % area / p.n, j = q % area % p.n;
        eqnn_real *c = p.C + b * p.sc + i * p.ldc + j;
        eqnn_real all = p.beta != 0 ? (eqnn_real)p.beta * *c : 0;
        for (size_t s = b * sums; s < (b + 1) * sums; s++) {
            const eqnn_real *A = p.A + s * p.sa + i * ai, *B = p.B + s * p.sb + j * bj;
            eqnn_real sum = 0;
            for (size_t k = 0; k < p.k; k++) sum += A[k * ak] * B[k * bk];
            all += (eqnn_real)p.alpha * sum;
        }
        *c = all;
    }
}

/* cuBLAS counts columns first: in its eyes our matrices are transposed, and C' = B' A'. */
static int eqnn__gemm_call(eqnn__device *d, const void *product)
{
    eqnn__gpu *g = eqnn__gpu_of(d);
    const eqnn__product *p = (const eqnn__product *)product;
    cublasOperation_t ta = p->ta ? CUBLAS_OP_T : CUBLAS_OP_N;
    cublasOperation_t tb = p->tb ? CUBLAS_OP_T : CUBLAS_OP_N;
    eqnn_real alpha = (eqnn_real)p->alpha, beta = (eqnn_real)p->beta;
    int m = (int)p->m, n = (int)p->n, k = (int)p->k;
    int lda = (int)p->lda, ldb = (int)p->ldb, ldc = (int)p->ldc;
#ifdef EQNN_DOUBLE
#define EQNN__BLAS(name) cublasD##name
#else
#define EQNN__BLAS(name) cublasS##name
#endif
    if (p->batch == 1)
        return eqnn__look_blas(d, EQNN__BLAS(gemm)(g->blas, tb, ta, n, m, k, &alpha, p->B, ldb,
                                                   p->A, lda, &beta, p->C, ldc));
    return eqnn__look_blas(d, EQNN__BLAS(gemmStridedBatched)(
        g->blas, tb, ta, n, m, k, &alpha, p->B, ldb, (long long)p->sb, p->A, lda,
        (long long)p->sa, &beta, p->C, ldc, (long long)p->sc, (int)p->batch));
#undef EQNN__BLAS
}

static void eqnn__gemm_blas(eqnn__device *d, const eqnn__product *p)
{
    eqnn__queue_call(d, eqnn__gemm_call, p, sizeof *p);
}

/* C = beta C + the sum over b of the products in part[b], in order. */
static __global__ void eqnn__gemm_sum_kernel(size_t batch, size_t m, size_t n,
                                             const eqnn_real *part, eqnn_real beta, eqnn_real *C,
                                             size_t ldc)
{
    EQNN__STRIDE(q, m * n) {
        eqnn_real *c = C + q / n * ldc + q % n, sum = 0;
#pragma unroll 4
        for (size_t b = 0; b < batch; b++) sum += part[b * m * n + q];
        *c = beta != 0 ? sum + beta * *c : sum;
    }
}

/* The rows' distance as cuBLAS wants it: at least a row's length; a single row has any. */
static int eqnn__gemm_distance(size_t *ld, size_t rows, size_t length)
{
    if (*ld < length && rows > 1) return 0;
    if (*ld < length) *ld = length;
    return *ld <= INT_MAX;
}

static void eqnn__gemm_run(eqnn__device *d, eqnn__product p);

/* All products as one with a longer sum, where the matrices lie so. */
static int eqnn__gemm_joined(eqnn__device *d, eqnn__product p)
{
    size_t k = p.k * p.batch;
    if (p.sa != (p.ta ? p.k * p.lda : p.k) || p.sb != (p.tb ? p.k : p.k * p.ldb) || k > INT_MAX ||
        !eqnn__gemm_distance(&p.lda, p.ta ? k : p.m, p.ta ? p.m : k) ||
        !eqnn__gemm_distance(&p.ldb, p.tb ? p.n : k, p.tb ? k : p.n))
        return 0;
    p.k = k;
    p.batch = 1;
    eqnn__gemm_run(d, p);
    return 1;
}

/* One C for all batches: as one longer sum where the matrices lie so, else into working memory when
   they are small, side by side, or many; else one after the other. */
static void eqnn__gemm_into_one(eqnn__device *d, eqnn__product p)
{
    size_t area = p.m * p.n, batch = p.batch, room = ((size_t)1 << 24) / area, done = 0;
    room = room < 65535 ? room : 65535;
    if (eqnn__gemm_joined(d, p)) return;
    eqnn_real *C = p.C, *part = NULL, beta = (eqnn_real)p.beta;
    size_t ldc = p.ldc, at_once = batch < room ? batch : room;
    if ((batch > 8 && at_once > 8) || (batch > 2 && area <= 16384))
        part = (eqnn_real *)eqnn__scratch(d, EQNN__SCRATCH_GEMM, at_once * area * sizeof *part);
    for (; done < batch && !eqnn__gpu_of(d)->failed; done += p.batch, beta = 1) {
        p.batch = !part ? 1 : batch - done < at_once ? batch - done : at_once;
        p.beta = part ? 0 : (double)beta;
        p.C = part ? part : C;
        p.ldc = part ? p.n : ldc;
        p.sc = part ? area : 0;
        eqnn__gemm_blas(d, &p);
        if (part)
            EQNN__RUN(d, eqnn__gemm_sum_kernel, eqnn__grid_of(area), EQNN__BLOCK, 0, p.batch, p.m,
                      p.n, (const eqnn_real *)part, beta, C, ldc);
        p.A += p.batch * p.sa;
        p.B += p.batch * p.sb;
    }
}

#ifndef EQNN__GEMM_SPAN
#define EQNN__GEMM_SPAN 0x7fffffff /* tests make it small */
#endif

/* As many of n rows, which two matrices have so far apart (0: has not), as cuBLAS takes at a time:
   some of its kernels fail on matrices whose last number is 2^31 or more behind the first, few as
   their rows and columns are (NVIDIA/raft issue 3097). */
static size_t eqnn__gemm_rows(size_t n, size_t ld, size_t other)
{
    const size_t span = EQNN__GEMM_SPAN;
    if (ld > 0 && ld <= span && n > span / ld) n = span / ld;
    if (other > 0 && other <= span && n > span / other) n = span / other;
    return n;
}

/* A product whose matrices reach too far, in pieces of its rows, columns or terms (which may be
   parted again, another way); 0: they do not. */
static int eqnn__gemm_parted(eqnn__device *d, const eqnn__product *p)
{
    size_t m = eqnn__gemm_rows(p->m, p->ldc, p->ta ? 0 : p->lda);
    size_t n = eqnn__gemm_rows(p->n, p->tb ? p->ldb : 0, 0);
    size_t k = eqnn__gemm_rows(p->k, p->ta ? p->lda : 0, p->tb ? 0 : p->ldb);
    size_t step = m < p->m ? m : n < p->n ? n : k, all = m < p->m ? p->m : n < p->n ? p->n : p->k;
    for (size_t i = 0; step < all && i < all; i += step) {
        eqnn__product q = *p;
        size_t now = all - i < step ? all - i : step;
        if (m < p->m) {
            q.m = now, q.A += i * (p->ta ? 1 : p->lda), q.C += i * p->ldc;
        } else if (n < p->n) {
            q.n = now, q.B += i * (p->tb ? p->ldb : 1), q.C += i;
        } else {
            q.k = now, q.A += i * (p->ta ? p->lda : 1), q.B += i * (p->tb ? 1 : p->ldb);
            q.beta = i ? 1 : p->beta;
        }
        eqnn__gemm_run(d, q);
    }
    return step < all;
}

static void eqnn__gemm_run(eqnn__device *d, eqnn__product p)
{
    eqnn__product q = p;
    int small = p.m <= INT_MAX && p.n <= INT_MAX && p.k <= INT_MAX && p.batch <= INT_MAX;
    if (small && eqnn__gemm_parted(d, &p)) return;
    if (!small || p.k == 0 || !eqnn__gemm_distance(&q.lda, p.ta ? p.k : p.m, p.ta ? p.m : p.k) ||
        !eqnn__gemm_distance(&q.ldb, p.tb ? p.n : p.k, p.tb ? p.k : p.n) ||
        !eqnn__gemm_distance(&q.ldc, p.m, p.n)) {
        size_t units = p.m * p.n * (p.sc == 0 ? 1 : p.batch);
        EQNN__RUN(d, eqnn__gemm_kernel, eqnn__grid_of(units), EQNN__BLOCK, 0, p);
    } else if (p.batch > 1 && p.sc == 0) {
        eqnn__gemm_into_one(d, q);
    } else {
        for (size_t left = p.batch; left > 0; left -= q.batch) { /* a grid's third side: so many */
            q.batch = left < 65535 ? left : 65535;
            eqnn__gemm_blas(d, &q);
            q.A += q.batch * q.sa, q.B += q.batch * q.sb, q.C += q.batch * q.sc;
        }
    }
}

static void eqnn__cuda_gemm(eqnn__device *d, int ta, int tb, size_t m, size_t n, size_t k,
                            double alpha, const eqnn_real *A, size_t lda, size_t sa,
                            const eqnn_real *B, size_t ldb, size_t sb, double beta, eqnn_real *C,
                            size_t ldc, size_t sc, size_t batch)
{
    eqnn__product p;
    p.ta = ta, p.tb = tb;
    p.m = m, p.n = n, p.k = k, p.batch = batch;
    p.A = A, p.lda = lda, p.sa = sa;
    p.B = B, p.ldb = ldb, p.sb = sb;
    p.C = C, p.ldc = ldc, p.sc = sc;
    p.alpha = alpha, p.beta = beta;
    if (m > 0 && n > 0 && batch > 0) eqnn__gemm_run(d, p);
}

/* ---- solid harmonics ----

   A thread makes a point's row in registers (degrees up to 6 are straight code); the block's rows
   go out through shared memory, so that writes are contiguous. Bytes: the points once and the rows
   once, which is nearly all for (l + 1)^2 numbers a point. Rows there are an odd number of pieces
   apart, which keeps threads that write the same column in different banks: pieces of 16 bytes,
   moved by one instruction, where these divide a row (odd degrees), else numbers. */

#define EQNN__SOLID_FACTORS (3 * (EQNN__SOLID_LMAX + 1) * (EQNN__SOLID_LMAX + 2) / 2)
typedef struct eqnn__solid_args {
    int lmax;
    size_t n;
    const eqnn_real *xyz, *g;
    eqnn_real *Y, *J;
    eqnn_real factors[EQNN__SOLID_FACTORS]; /* of gradients */
} eqnn__solid_args;

/* Points of a block: as many as fit 40 KB with so many numbers each. */
static constexpr int eqnn__solid_points(int numbers)
{
    return numbers * 128 * (int)sizeof(eqnn_real) <= 40960 ? 128
         : numbers * 64 * (int)sizeof(eqnn_real) <= 40960 ? 64 : 32;
}

/* How far apart rows of so many numbers lie in shared memory. */
EQNN__HD static constexpr int eqnn__solid_pitch(int row)
{
    return row % EQNN__PACK ? row | 1 : (row / EQNN__PACK | 1) * EQNN__PACK;
}

/* Where number i of rows of ROW numbers lies there. */
template <int ROW> static __device__ __forceinline__ unsigned eqnn__solid_at(unsigned i)
{
    constexpr unsigned row = ROW, pitch = (unsigned)eqnn__solid_pitch(ROW);
    return i / row * pitch + i % row;
}

/* count contiguous numbers at out from rows in shared memory, and back. */
template <int ROW>
static __device__ __forceinline__ void eqnn__rows_out(const eqnn_real *tile, size_t count,
                                                      eqnn_real *out)
{
    const unsigned pack = EQNN__PACK;
    unsigned n = (unsigned)count, packs = (uintptr_t)out % 16 ? 0 : n / pack;
    for (unsigned q = threadIdx.x; q < packs; q += blockDim.x) {
        eqnn__pack v;
        if constexpr (ROW % EQNN__PACK == 0) {
            v = *(const eqnn__pack *)(const void *)(tile + eqnn__solid_at<ROW>(q * pack));
        } else {
#pragma unroll
            for (unsigned k = 0; k < pack; k++) v.v[k] = tile[eqnn__solid_at<ROW>(q * pack + k)];
        }
        *(eqnn__pack *)(void *)(out + (size_t)q * pack) = v;
    }
    for (unsigned i = packs * pack + threadIdx.x; i < n; i += blockDim.x)
        out[i] = tile[eqnn__solid_at<ROW>(i)];
}

template <int ROW>
static __device__ __forceinline__ void eqnn__rows_in(const eqnn_real *in, size_t count,
                                                     eqnn_real *tile)
{
    const unsigned pack = EQNN__PACK;
    unsigned n = (unsigned)count, packs = (uintptr_t)in % 16 ? 0 : n / pack;
    for (unsigned q = threadIdx.x; q < packs; q += blockDim.x) {
        eqnn__pack v = *(const eqnn__pack *)(const void *)(in + (size_t)q * pack);
        if constexpr (ROW % EQNN__PACK == 0) {
            *(eqnn__pack *)(void *)(tile + eqnn__solid_at<ROW>(q * pack)) = v;
        } else {
#pragma unroll
            for (unsigned k = 0; k < pack; k++) tile[eqnn__solid_at<ROW>(q * pack + k)] = v.v[k];
        }
    }
    for (unsigned i = packs * pack + threadIdx.x; i < n; i += blockDim.x)
        tile[eqnn__solid_at<ROW>(i)] = in[i];
}

/* The block's points from `first` on through the tile to r; returns how many there are. All threads
   come here; the tile can be used again when it returns. */
static __device__ __forceinline__ size_t eqnn__points_in(const eqnn__solid_args &j, size_t first,
                                                         eqnn_real *tile, eqnn_real r[3])
{
    size_t points = j.n - first < blockDim.x ? j.n - first : blockDim.x;
    eqnn__rows_in<3>(j.xyz + 3 * first, 3 * points, tile);
    __syncthreads();
    for (int axis = 0; axis < 3; axis++)
        r[axis] = threadIdx.x < points ? tile[3 * threadIdx.x + (unsigned)axis] : 0;
    __syncthreads();
    return points;
}

template <int L>
static __global__ void eqnn__solid_kernel(const __grid_constant__ eqnn__solid_args j)
{
    constexpr int cols = (L + 1) * (L + 1), pitch = eqnn__solid_pitch(cols);
    EQNN_SHARED(eqnn_real, tile);
    eqnn_real P[cols], r[3];
    for (size_t first = (size_t)blockIdx.x * blockDim.x; first < j.n;
         first += (size_t)gridDim.x * blockDim.x) {
        size_t points = eqnn__points_in(j, first, tile, r);
        eqnn__solid_low_1(L, L, r, P);
#pragma unroll
        for (int c = 0; c < cols; c++) tile[(int)threadIdx.x * pitch + c] = P[c];
        __syncthreads();
        eqnn__rows_out<cols>(tile, points * cols, j.Y + first * cols);
        __syncthreads();
    }
}

/* The gradient of degree l of P, straight code when l is known. */
#define EQNN__GRADIENT(l, P, G)                                                                \
    eqnn__solid_gradient_1(l, j.factors + 3 * ((l) * ((l) + 1) / 2), (P) + (l) * (l) - (l), \
                           (G) + 3 * (l))

template <int L>
static __global__ void eqnn__jacobian_kernel(const __grid_constant__ eqnn__solid_args j)
{
    constexpr int cols = (L + 1) * (L + 1), row = 3 * cols, pitch = eqnn__solid_pitch(row);
    EQNN_SHARED(eqnn_real, tile);
    eqnn_real P[cols], G[3 * (2 * L + 1)], r[3], *mine = tile + (int)threadIdx.x * pitch;
    for (size_t first = (size_t)blockIdx.x * blockDim.x; first < j.n;
         first += (size_t)gridDim.x * blockDim.x) {
        size_t points = eqnn__points_in(j, first, tile, r);
        eqnn__solid_low_1(L, L, r, P);
        for (int axis = 0; axis < 3; axis++) mine[axis] = 0;
#pragma unroll
        for (int l = 1; l <= L; l++) {
            EQNN__GRADIENT(l, P, G);
#pragma unroll
            for (int c = 0; c < 3 * (2 * l + 1); c++) mine[3 * l * l + c] = G[c];
        }
        __syncthreads();
        eqnn__rows_out<row>(tile, points * row, j.J + first * row);
        __syncthreads();
    }
}

template <int L>
static __global__ void eqnn__solid_vjp_kernel(const __grid_constant__ eqnn__solid_args j)
{
    constexpr int cols = (L + 1) * (L + 1), pitch = eqnn__solid_pitch(cols);
    EQNN_SHARED(eqnn_real, tile);
    eqnn_real P[cols], G[3 * (2 * L + 1)], r[3];
    for (size_t first = (size_t)blockIdx.x * blockDim.x; first < j.n;
         first += (size_t)gridDim.x * blockDim.x) {
        size_t points = eqnn__points_in(j, first, tile, r);
        eqnn_real d[3] = {0, 0, 0};
        eqnn__rows_in<cols>(j.g + first * cols, points * cols, tile);
        __syncthreads();
        eqnn__solid_low_1(L - 1, L - 1, r, P);
        const eqnn_real *g = tile + (int)threadIdx.x * pitch;
#pragma unroll
        for (int l = 1; l <= L; l++) {
            EQNN__GRADIENT(l, P, G);
#pragma unroll
            for (int c = 0; c < 3 * (2 * l + 1); c++)
                if (threadIdx.x < points) d[c % 3] += g[l * l + c / 3] * G[c];
        }
        __syncthreads();
        for (int axis = 0; axis < 3; axis++) tile[3 * threadIdx.x + (unsigned)axis] = d[axis];
        __syncthreads();
        eqnn__rows_out<3>(tile, 3 * points, j.Y + 3 * first);
        __syncthreads();
    }
}

/* The gradient of P^l_m from Q, degree l - 1 (its middle); f: the three factors of l and |m|. */
static __device__ __forceinline__ void eqnn__solid_terms(int l, int m, const eqnn_real *f,
                                                         const eqnn_real *Q, eqnn_real v[3])
{
    int k = m < 0 ? -m : m, s = m < 0 ? -1 : 1;
    eqnn_real sign = (eqnn_real)s;
    v[0] = v[1] = v[2] = 0;
    if (k + 1 < l) v[2] -= f[0] * Q[s * (k + 1)];
    if (k + 1 < l) v[0] -= sign * f[0] * Q[-s * (k + 1)];
    if (k < l) v[1] = f[1] * Q[m];
    if (k > 1 || m == 1) v[2] += f[2] * Q[s * (k - 1)];
    if (k > 1 || m == -1) v[0] -= sign * f[2] * Q[-s * (k - 1)];
}

/* One point, any degree: every P^l from P^(l-1); J, g NULL or the point's rows. d += g dP/dr. */
static __device__ void eqnn__solid_row(const eqnn__solid_args &j, const eqnn_real *r, eqnn_real *P,
                                       eqnn_real *J, const eqnn_real *g, eqnn_real d[3])
{
    P[0] = 1;
    for (int axis = 0; J && axis < 3; axis++) J[axis] = 0;
    for (int l = 1; l <= j.lmax; l++)
        for (int m = -l; m <= l; m++) {
            int k = m < 0 ? -m : m, at = l * l + l + m;
            const eqnn_real *f = j.factors + 3 * (l * (l + 1) / 2 + k);
            eqnn_real v[3], here[3];
            if (l > EQNN__SOLID_LMAX) {
                double exact[3];
                eqnn__solid_factors(l, k, exact);
                for (int axis = 0; axis < 3; axis++) here[axis] = (eqnn_real)exact[axis];
                f = here;
            }
            eqnn__solid_terms(l, m, f, P + l * l - l, v);
            P[at] = (r[0] * v[0] + r[1] * v[1] + r[2] * v[2]) * (eqnn_real)(1.0 / l);
            for (int axis = 0; J && axis < 3; axis++) J[3 * at + axis] = v[axis];
            for (int axis = 0; g && axis < 3; axis++) d[axis] += g[at] * v[axis];
        }
}

/* A warp takes 32 points. Their rows lie in shared memory where it is large enough (staged), else
   in rows. g NULL: values, which go to Y (and J); else its contraction with the gradient does. */
static __global__ void eqnn__solid_any_kernel(const __grid_constant__ eqnn__solid_args j,
                                              int staged, eqnn_real *rows)
{
    EQNN_SHARED(eqnn_real, tile);
    size_t cols = (size_t)(j.lmax + 1) * (size_t)(j.lmax + 1), odd = cols | 1;
    for (size_t first = (size_t)blockIdx.x * 32; first < j.n; first += (size_t)gridDim.x * 32) {
        size_t i = first + threadIdx.x, points = j.n - first < 32 ? j.n - first : 32;
        eqnn_real d[3] = {0, 0, 0};
        if (i < j.n)
            eqnn__solid_row(j, j.xyz + 3 * i, staged ? tile + threadIdx.x * odd : rows + i * cols,
                            j.J ? j.J + 3 * i * cols : NULL, j.g ? j.g + i * cols : NULL, d);
        for (int axis = 0; j.g && i < j.n && axis < 3; axis++) j.Y[3 * i + (size_t)axis] = d[axis];
        __syncthreads();
        for (size_t p = 0; p < points && staged && !j.g; p++)
            for (size_t c = threadIdx.x; c < cols; c += 32)
                j.Y[(first + p) * cols + c] = tile[p * odd + c];
        __syncthreads();
    }
}

enum { EQNN__SOLID_VALUES, EQNN__SOLID_JACOBIAN, EQNN__SOLID_VJP };

template <int L>
static void eqnn__solid_low_run(eqnn__device *d, const eqnn__solid_args *j, int what)
{
    const int cols = (L + 1) * (L + 1), row = eqnn__solid_pitch(cols);
    int numbers = what == EQNN__SOLID_JACOBIAN ? eqnn__solid_pitch(3 * cols) : row > 3 ? row : 3;
    size_t threads = (size_t)eqnn__solid_points(numbers), most = (size_t)1 << 20;
    size_t shared = threads * (size_t)numbers * sizeof(eqnn_real);
    size_t grid = (j->n + threads - 1) / threads < most ? (j->n + threads - 1) / threads : most;
    if (what == EQNN__SOLID_JACOBIAN)
        EQNN__RUN(d, eqnn__jacobian_kernel<L>, grid, threads, shared, *j);
    else if (what == EQNN__SOLID_VALUES)
        EQNN__RUN(d, eqnn__solid_kernel<L>, grid, threads, shared, *j);
    else EQNN__RUN(d, eqnn__solid_vjp_kernel<L>, grid, threads, shared, *j);
}

static void eqnn__solid_high_run(eqnn__device *d, const eqnn__solid_args *j, int what)
{
    size_t cols = (size_t)(j->lmax + 1) * (size_t)(j->lmax + 1);
    size_t shared = 32 * (cols | 1) * sizeof(eqnn_real), blocks = (j->n + 31) / 32;
    int staged = shared <= eqnn__gpu_of(d)->shared;
    eqnn_real *rows = j->Y;
    if (!staged && what == EQNN__SOLID_VJP) {
        rows = (eqnn_real *)eqnn__scratch(d, EQNN__SCRATCH_FOLD, j->n * cols * sizeof *rows);
        if (!rows) return;
    }
    if (!staged) shared = 0;
    if (blocks > 65536) blocks = 65536;
    EQNN__RUN(d, eqnn__solid_any_kernel, blocks, 32, shared, *j, staged, rows);
}

static void eqnn__solid_run(eqnn__device *d, eqnn__solid_args *j, int what)
{
    double f[3];
    for (int l = 1; l <= j->lmax && l <= EQNN__SOLID_LMAX; l++)
        for (int m = 0; m <= l; m++) {
            eqnn__solid_factors(l, m, f);
            for (int k = 0; k < 3; k++) j->factors[3 * (l * (l + 1) / 2 + m) + k] = (eqnn_real)f[k];
        }
    switch (j->lmax) {
    case 0: eqnn__solid_low_run<0>(d, j, what); break;
    case 1: eqnn__solid_low_run<1>(d, j, what); break;
    case 2: eqnn__solid_low_run<2>(d, j, what); break;
    case 3: eqnn__solid_low_run<3>(d, j, what); break;
    case 4: eqnn__solid_low_run<4>(d, j, what); break;
    case 5: eqnn__solid_low_run<5>(d, j, what); break;
    case 6: eqnn__solid_low_run<6>(d, j, what); break;
    default: eqnn__solid_high_run(d, j, what);
    }
}

static void eqnn__cuda_solid(eqnn__device *d, int lmax, size_t n, const eqnn_real *xyz,
                             eqnn_real *Y, eqnn_real *jacobian)
{
    eqnn__solid_args j;
    memset(&j, 0, sizeof j);
    j.lmax = lmax, j.n = n, j.xyz = xyz, j.Y = Y, j.J = jacobian;
    if (n == 0) return;
    if (lmax <= 6 && jacobian) eqnn__solid_run(d, &j, EQNN__SOLID_JACOBIAN);
    eqnn__solid_run(d, &j, EQNN__SOLID_VALUES);
}

static void eqnn__cuda_solid_vjp(eqnn__device *d, int lmax, size_t n, const eqnn_real *xyz,
                                 const eqnn_real *g, eqnn_real *dxyz)
{
    eqnn__solid_args j;
    memset(&j, 0, sizeof j);
    j.lmax = lmax, j.n = n, j.xyz = xyz, j.g = g, j.Y = dxyz;
    if (n > 0) eqnn__solid_run(d, &j, EQNN__SOLID_VJP);
}

/* ---- edge frames ---- */

typedef struct eqnn__frame_args {
    int lmax, mmax, warps; /* warps of a block */
    size_t n, cols;
    const eqnn__frame_terms *terms;
    const eqnn_real *r;
    const double *given;
    eqnn_real *D;
} eqnn__frame_args;

static void eqnn__frame_make(eqnn__device *d, const eqnn__frame_plan *p, eqnn__frame_plan *to)
{
    size_t n = (size_t)(p->lmax + 1) * (size_t)(p->lmax + 1);
    to->lmax = p->lmax;
    to->terms = eqnn__gpu_upload(d, p->terms, n);
}

/* D^l from D^(l-1) by the lanes of a warp: the inner columns, then the outer ones. */
static __device__ __forceinline__ void eqnn__frame_warp(int l, const eqnn__frame_terms *at,
                                                        const double R[9], const double *lower,
                                                        double *D)
{
    int lane = (int)(threadIdx.x % 32), w = 2 * l + 1;
    double side[2];
    for (int i = lane; i < w * (w - 2); i += 32) {
        int k = i / (w - 2), c = i % (w - 2) + 1;
        D[k * w + c] = eqnn__frame_inner(l, at, R, lower, k - l, c - l);
    }
    __syncwarp();
    for (int i = lane; i < 2 * w; i += 32) {
        int k = i / 2, s = i % 2;
        eqnn__frame_side(l, at, s, side);
        D[k * w + s * 2 * l] = eqnn__frame_outer(l, at, R, lower, k - l, s, side, D + k * w + l);
    }
    __syncwarp();
}

/* A warp makes the matrices of an edge, in shared memory the last two in double. */
static __global__ void eqnn__frame_kernel(const __grid_constant__ eqnn__frame_args j)
{
    EQNN_SHARED(double, shared);
    int lane = (int)(threadIdx.x % 32), warp = (int)(threadIdx.x / 32), most = 2 * j.lmax + 1;
    size_t e = (size_t)blockIdx.x * (size_t)j.warps + (size_t)warp;
    double own[9], *R = shared + (size_t)warp * (2 * (size_t)(most * most) + 9), *D = R + 9;
    if (e >= j.n) return; /* all lanes of the warp */
    int there = eqnn__frame_rotation(j.r + 3 * e, own);
    eqnn_real *out = j.D + e * j.cols;
#pragma unroll
    for (int i = 0; i < 9; i++) /* shared: its places are found at run time */
        if (lane == 0) R[i] = j.given ? j.given[9 * e + (size_t)i] : own[i];
    if (lane == 0) D[0] = 1, out[0] = 1;
    out++;
    __syncwarp();
    for (int l = 1; l <= j.lmax; l++) {
        int M = l < j.mmax ? l : j.mmax, w = 2 * l + 1, n = (2 * M + 1) * w;
        double *now = D + l % 2 * most * most, *lower = D + (l + 1) % 2 * most * most;
        if (there) eqnn__frame_warp(l, j.terms + l * l + l, R, lower, now);
        for (int i = lane; i < n; i += 32) out[i] = there ? (eqnn_real)now[(l - M) * w + i] : 0;
        out += n;
    }
}

static void eqnn__cuda_frame(eqnn__device *d, const eqnn__frame_plan *plan, int mmax, size_t n,
                             const eqnn_real *r, const double *given, eqnn_real *D)
{
    eqnn__frame_args j;
    const eqnn__frame_plan *there = eqnn__gpu_plan(d, plan, eqnn__frame_make);
    if (!there || n == 0) return;
    size_t most = 2 * (size_t)plan->lmax + 1, room = (2 * most * most + 9) * sizeof(double);
    memset(&j, 0, sizeof j);
    j.lmax = plan->lmax, j.mmax = mmax;
    for (j.warps = 8; j.warps > 1 && (size_t)j.warps * room > 49152;) j.warps /= 2;
    j.n = n;
    j.cols = (size_t)eqnn__frame_column(plan->lmax + 1, mmax);
    j.terms = there->terms;
    j.r = r, j.given = given, j.D = D;
    size_t grid = (n + (size_t)j.warps - 1) / (size_t)j.warps, shared = (size_t)j.warps * room;
    if (shared > eqnn__gpu_of(d)->shared) {
        eqnn__gpu_fail(d, "frames of these degrees need more shared memory than a block has here");
        return;
    }
    EQNN__RUN(d, eqnn__frame_kernel, grid, 32 * (size_t)j.warps, shared, j);
}

/* ---- training step ---- */

typedef struct eqnn__update_args {
    eqnn__factors f;
    double clip;
    const double *squares;
    const unsigned long long *mark;
    size_t n, width, units;
    eqnn_real *p[5]; /* weights, gradient, moments, largest second one */
} eqnn__update_args;

/* One number: v holds weight, gradient, moments and largest second one, if there are such. */
static __device__ __forceinline__ void eqnn__update_one(const eqnn__factors *f, eqnn_real scale,
                                                        const int has[5], eqnn_real v[5])
{
    if (f->kind == EQNN__EMA) {
        v[2] = v[2] * f->b1 + v[0] * f->c1;
        return;
    }
    eqnn_real g = v[1] * scale + v[0] * f->l2;
    v[0] = f->kind == EQNN__ADAM ? eqnn__adam_1(f, v[0], g, v + 2, v + 3, has[4] ? v + 4 : NULL)
                                 : eqnn__sgd_1(f, v[0], g, has[2] ? v + 2 : NULL);
}

/* Nothing changes while check's mark is set. Bytes: weights, gradients and moments are read once,
   and all but gradients written once. */
static __global__ void eqnn__update_kernel(const __grid_constant__ eqnn__update_args j)
{
    double scale = j.squares ? j.clip / (sqrt(*j.squares) + 1e-6) : 1;
    eqnn_real factor = (eqnn_real)(scale > 1 ? 1 : scale);
    int has[5], writes[5];
    for (int s = 0; s < 5; s++) has[s] = writes[s] = j.p[s] != NULL;
    writes[1] = 0;
    if (j.f.kind == EQNN__EMA) has[1] = has[3] = writes[0] = writes[3] = 0;
    if (*j.mark != EQNN__UNMARKED) return;
    EQNN__STRIDE(q, j.units) {
        size_t i = q * j.width;
        eqnn__pack v[5];
        if (j.width == 1) {
            eqnn_real one[5];
            for (int s = 0; s < 5; s++) one[s] = has[s] ? j.p[s][i] : 0;
            eqnn__update_one(&j.f, factor, has, one);
            for (int s = 0; s < 5; s++)
                if (writes[s]) j.p[s][i] = one[s];
            continue;
        }
#pragma unroll
        for (int s = 0; s < 5; s++)
            if (has[s]) v[s] = *(const eqnn__pack *)(const void *)(j.p[s] + i);
            else
                for (int k = 0; k < EQNN__PACK; k++) v[s].v[k] = 0;
#pragma unroll
        for (int k = 0; k < EQNN__PACK; k++) {
            eqnn_real one[5] = {v[0].v[k], v[1].v[k], v[2].v[k], v[3].v[k], v[4].v[k]};
            eqnn__update_one(&j.f, factor, has, one);
            for (int s = 0; s < 5; s++) v[s].v[k] = one[s];
        }
#pragma unroll
        for (int s = 0; s < 5; s++)
            if (writes[s]) *(eqnn__pack *)(void *)(j.p[s] + i) = v[s];
    }
}

static void eqnn__cuda_update(eqnn__device *d, const eqnn__update *u, size_t n, eqnn_real *w,
                              eqnn_real *g, eqnn_real *s1, eqnn_real *s2, eqnn_real *s3)
{
    eqnn__update_args j;
    eqnn__update host = *u;
    memset(&j, 0, sizeof j);
    host.squares = NULL; /* it lies on the device: the kernel reads it */
    j.f = eqnn__update_factors(&host);
    j.clip = u->clip;
    j.squares = u->squares;
    j.mark = eqnn__gpu_of(d)->mark;
    j.p[0] = w, j.p[1] = g, j.p[2] = s1, j.p[3] = s2, j.p[4] = s3;
    j.width = (size_t)EQNN__PACK;
    for (int s = 0; s < 5; s++)
        if (!eqnn__packs(j.p[s], 0)) j.width = 1;
    size_t rest = n % j.width;
    j.n = n - rest;
    j.units = j.n / j.width;
    EQNN__RUN(d, eqnn__update_kernel, eqnn__grid_of(j.units), EQNN__BLOCK, 0, j);
    if (rest == 0) return;
    for (int s = 0; s < 5; s++)
        if (j.p[s]) j.p[s] += j.n;
    j.width = 1;
    j.n = j.units = rest;
    EQNN__RUN(d, eqnn__update_kernel, 1, EQNN__BLOCK, 0, j);
}

/* ----------------------------------------------------------------------------------------------
   4 >>forms   The multilinear forms. Every output row has one owner, who adds its items in a fixed
               order: no atomics, the same bits from run to run. What all rows share is summed in
               fixed chunks of items, whose partial sums are added in order.
   ---------------------------------------------------------------------------------------------- */

#ifndef EQNN__FORM_TILE
#define EQNN__FORM_TILE 16384 /* most items whose weights are made at a time                 */
#endif
#ifndef EQNN__FORM_BYTES
#define EQNN__FORM_BYTES ((size_t)24 << 20) /* of such a tile: it stays in the second cache  */
#endif
#ifndef EQNN__FORM_EDGES
#define EQNN__FORM_EDGES 32 /* most items of a block whose M are made at a time              */
#endif
#ifndef EQNN__FORM_ENTRIES
#define EQNN__FORM_ENTRIES 1024 /* most numbers of the M of one item in shared memory        */
#endif
#ifndef EQNN__FORM_GRID
#define EQNN__FORM_GRID 2048 /* blocks of couple for as many positions or more               */
#endif
#ifndef EQNN__FORM_LONG
#define EQNN__FORM_LONG ((size_t)4) /* rows of g are long that are so many rows of x         */
#endif
#ifndef EQNN__FORM_APART
#define EQNN__FORM_APART ((size_t)512 << 20) /* bytes of dx of items, for owners to add up   */
#endif
#ifndef EQNN__POLY_BLOCKS
#define EQNN__POLY_BLOCKS 64 /* fewer, of long rows, would leave most of a device idle       */
#endif
#define EQNN__POLY_LEAST 4                   /* items whose rows must fit shared memory      */
#define EQNN__FORM_WARPS 4                   /* most warps of a block of couple              */
/* Blocks of couple on a multiprocessor, of 128 threads each: 4, 3 or 2 of them leave a thread 128,
   168 or 255 registers. More hide more of the waiting for memory, unless registers are so few that
   an item's loads have to wait for each other: in role G of values, 3 blocks that ask for all of an
   item at once have more bytes on their way than 4 that ask for half of it twice. */
#define EQNN__FORM_BLOCKS(role, T) \
    (sizeof(eqnn_real) == 8 || (T) ? 2 : (role) == EQNN__ROLE_W ? 4 : 3)
#define EQNN__FORM_SHARED ((size_t)32 << 10) /* bytes of shared memory a block asks for      */
#define EQNN__FORM_CHUNKS 512                /* most partial sums of what all rows share     */
#define EQNN__FORM_PARTIAL ((size_t)1 << 23) /* and their numbers altogether                 */

/* ---- owners ---- */

/* The arrays of a graph. */
typedef struct eqnn__arcs {
    const int *source, *target, *first, *by_source, *first_by_source, *pair, *pair_edge;
} eqnn__arcs;

/* Owners 0..owners-1 have the positions of their items one owner after the other. With map EACH an
   item is its own owner, with ONE an owner is a chunk of items, with PAIR an owner has two
   positions: its first edge and the reverse of it, which may be missing. */
typedef struct eqnn__owners {
    eqnn__arcs g;
    int map, items, owners, positions, chunk;
} eqnn__owners;

static eqnn__arcs eqnn__form_arcs(const eqnn__form *f)
{
    eqnn__arcs a;
    const eqnn_graph *g = f->graph;
    memset(&a, 0, sizeof a);
    if (!g) return a;
    a.source = g->source, a.target = g->target, a.first = g->first, a.by_source = g->by_source;
    a.first_by_source = g->first_by_source, a.pair = g->pair, a.pair_edge = g->pair_edge;
    return a;
}

static eqnn__owners eqnn__form_owners(const eqnn__form *f, int slot, int map)
{
    eqnn__owners o;
    memset(&o, 0, sizeof o);
    o.g = eqnn__form_arcs(f);
    o.map = map;
    o.items = o.owners = o.positions = f->items;
    o.chunk = 1;
    if (map == EQNN__TARGET) o.owners = f->graph->targets;
    if (map == EQNN__SOURCE) o.owners = f->graph->sources;
    if (map == EQNN__PAIR) o.owners = f->graph->pairs, o.positions = 2 * o.owners;
    if (map != EQNN__ONE) return o;
    size_t cols = f->cols[slot] > 0 ? (size_t)f->cols[slot] : 1, most = EQNN__FORM_PARTIAL / cols;
    most = most < 1 ? 1 : most < EQNN__FORM_CHUNKS ? most : EQNN__FORM_CHUNKS;
    o.chunk = (int)(((size_t)f->items + most - 1) / most);
    o.chunk = o.chunk < 32 ? 32 : o.chunk;
    o.owners = (int)(((size_t)f->items + (size_t)o.chunk - 1) / (size_t)o.chunk);
    return o;
}

static __device__ inline int eqnn__arc_row(const eqnn__arcs *g, int map, int item)
{
    switch (map) {
    case EQNN__SOURCE: return g->source[item];
    case EQNN__TARGET: return g->target[item];
    case EQNN__PAIR: return g->pair[item];
    case EQNN__ONE: return 0;
    default: return item;
    }
}

/* The other edge of a pair, -1 when there is none. Place q of by_source is the reverse of edge q,
   up to the order of edges between the same two nodes. */
static __device__ inline int eqnn__arc_partner(const eqnn__arcs *g, int edges, int pair)
{
    int e = g->pair_edge[pair], s = g->source[e], t = g->target[e];
    for (int q = e; q >= 0 && g->source[q] == s && g->target[q] == t; q--)
        if (g->by_source[q] != e && g->pair[g->by_source[q]] == pair) return g->by_source[q];
    for (int q = e + 1; q < edges && g->source[q] == s && g->target[q] == t; q++)
        if (g->by_source[q] != e && g->pair[g->by_source[q]] == pair) return g->by_source[q];
    return -1;
}

static __device__ inline int eqnn__order_item(const eqnn__owners *o, int position)
{
    if (o->map == EQNN__SOURCE) return o->g.by_source[position];
    if (o->map != EQNN__PAIR) return position;
    return position & 1 ? eqnn__arc_partner(&o->g, o->items, position / 2)
                        : o->g.pair_edge[position / 2];
}

static __device__ inline int eqnn__order_owner(const eqnn__owners *o, int position)
{
    switch (o->map) {
    case EQNN__SOURCE: return o->g.source[o->g.by_source[position]];
    case EQNN__TARGET: return o->g.target[position];
    case EQNN__PAIR: return position / 2;
    default: return position / o->chunk;
    }
}

static __device__ inline int eqnn__order_first(const eqnn__owners *o, int owner)
{
    switch (o->map) {
    case EQNN__SOURCE: return o->g.first_by_source[owner];
    case EQNN__TARGET: return o->g.first[owner];
    case EQNN__PAIR: return 2 * owner;
    default: return owner < o->owners ? owner * o->chunk : o->positions;
    }
}

/* Where the owner of the last position before p ends, at most at `to`; `from` is a border. */
static __device__ inline int eqnn__order_border(const eqnn__owners *o, int p, int from, int to)
{
    if (p <= from) return from;
    if (p >= to) return to;
    int end = eqnn__order_first(o, eqnn__order_owner(o, p - 1) + 1);
    return end < to ? end : to;
}

/* The first position of an owner whose item is not below `item`. Items of a source ascend, and so
   do those of all maps but PAIR, which is not asked. */
static __device__ inline int eqnn__order_from(const eqnn__owners *o, int owner, int item)
{
    int from = eqnn__order_first(o, owner), to = eqnn__order_first(o, owner + 1);
    while (from < to) {
        int middle = from + (to - from) / 2;
        if (eqnn__order_item(o, middle) < item) from = middle + 1;
        else to = middle;
    }
    return from;
}

/* A row for each of the items from..to-1, which their owners add up. */
typedef struct eqnn__rows_args {
    eqnn__owners order;
    int from, to, whole; /* whole: these are all items, else owners have added up those before    */
    int few;             /* 32 bits are enough for what threads take                              */
    size_t cols, units;  /* units of a row: numbers, or 16 bytes of them                          */
    const eqnn_real *rows;
    eqnn_real *out;
} eqnn__rows_args;

/* out[owner] = sum of the rows of its items, in the order of its positions, after what earlier
   items gave. Asks for four rows at once; reads every row once and writes the sums. */
template <int C>
static __global__ void eqnn__rows_kernel(const __grid_constant__ eqnn__rows_args j)
{
    const int few = 4;
    EQNN__STRIDE(n, (size_t)j.order.owners * j.units) {
        int owner = (int)eqnn__over(n, j.units, j.few);
        int p = eqnn__order_first(&j.order, owner), end = eqnn__order_first(&j.order, owner + 1);
        size_t at = (n - (size_t)owner * j.units) * C;
        eqnn_real sum[C], row[few][C];
        eqnn_real *out = j.out + (size_t)owner * j.cols + at;
#pragma unroll
        for (int c = 0; c < C; c++) sum[c] = 0;
        if (j.from > 0) eqnn__channels_add<C>(out, sum);
        if (!j.whole) {
            p = eqnn__order_from(&j.order, owner, j.from);
            end = eqnn__order_from(&j.order, owner, j.to);
        }
        for (; p < end; p += few) {
#pragma unroll
            for (int q = 0; q < few; q++) {
                int item = p + q < end ? eqnn__order_item(&j.order, p + q) : -1;
#pragma unroll
                for (int c = 0; c < C; c++) row[q][c] = 0;
                if (item >= 0)
                    eqnn__channels_in<C>(j.rows + (size_t)(item - j.from) * j.cols + at, row[q]);
            }
#pragma unroll
            for (int q = 0; q < few; q++)
#pragma unroll
                for (int c = 0; c < C; c++) sum[c] += row[q][c];
        }
        eqnn__channels_out<C>(sum, out);
    }
}

/* Rows of the items from..to-1 are added to what their owners had of the items before. */
static void eqnn__form_rows_of(eqnn__device *d, const eqnn__owners *o, int from, int to,
                               size_t cols, const eqnn_real *rows, eqnn_real *out)
{
    eqnn__rows_args j;
    memset(&j, 0, sizeof j);
    int packs = eqnn__packs(rows, cols) && eqnn__packs(out, cols);
    j.order = *o;
    j.from = from, j.to = to;
    j.whole = from == 0 && to == o->items;
    j.cols = cols, j.units = packs ? cols / EQNN__PACK : cols;
    j.rows = rows, j.out = out;
    size_t n = (size_t)o->owners * j.units, grid = eqnn__grid_of(n);
    j.few = eqnn__few(n);
    if (packs) EQNN__RUN(d, eqnn__rows_kernel<EQNN__PACK>, grid, EQNN__BLOCK, 0, j);
    else EQNN__RUN(d, eqnn__rows_kernel<1>, grid, EQNN__BLOCK, 0, j);
}

/* Rows of items (with map ONE: so many rows of whatever) become rows of their owners. */
static void eqnn__form_rows(eqnn__device *d, const eqnn__owners *o, int rows, size_t cols,
                            const eqnn_real *from, eqnn_real *out)
{
    if (o->map == EQNN__ONE) eqnn__cuda_fold_rows(d, EQNN__SUM, (size_t)rows, cols, from, out);
    else eqnn__form_rows_of(d, o, 0, o->items, cols, from, out);
}

/* Where the owners of a slot put their sums: its own rows, or a row per chunk, which is folded
   afterwards. */
static size_t eqnn__form_partials(const eqnn__form *f, int slot)
{
    eqnn__owners o = eqnn__form_owners(f, slot, f->map[slot]);
    return o.map == EQNN__ONE && o.owners > 1 ? (size_t)o.owners * (size_t)f->cols[slot] : 0;
}

static void eqnn__form_clear(eqnn__device *d, const eqnn__form *f, int slot, eqnn_real *out)
{
    eqnn__cuda_fill(d, (size_t)f->rows[slot] * (size_t)f->cols[slot], 0, out);
}

/* ---- poly, mix and copy: an owner's column is a thread's ----

   The loops a reader would write. Bytes: an item's rows are read once for each thread of its owner,
   that is from the first cache for all but the first of them. */

typedef struct eqnn__plain_args {
    eqnn__owners order;
    int slots, slot, map[EQNN__SLOTS];
    unsigned has;                         /* tangents that are there, 0: values */
    size_t cols[EQNN__SLOTS], numbers;    /* of the result                      */
    const eqnn_real *v[EQNN__SLOTS], *t[EQNN__SLOTS];
    eqnn_real *out;
    int few;                              /* 32 bits are enough for them        */
} eqnn__plain_args;

/* Rows of an item; with tangents, t_a in the place of v_a. */
static __device__ inline void eqnn__plain_rows(const eqnn__plain_args *a, int item, int tangent,
                                               const eqnn_real *row[])
{
#pragma unroll
    for (int s = 0; s < EQNN__SLOTS; s++) { /* with known places, rows stay in registers */
        const eqnn_real *from = s == tangent ? a->t[s] : a->v[s];
        row[s] = NULL;
        if (s < a->slots && from && a->cols[s] > 0)
            row[s] = from + (size_t)eqnn__arc_row(&a->order.g, a->map[s], item) * a->cols[s];
    }
}

/* The sum of term(plan, slot, column, rows) over the items of an owner and, with tangents, over the
   slots that have one. */
template <class P>
__device__ inline eqnn_real eqnn__plain_sum(const eqnn__plain_args *a, const P *plan, int owner,
                                            int column)
{
    const eqnn_real *row[EQNN__SLOTS];
    eqnn_real sum = 0;
    int end = eqnn__order_first(&a->order, owner + 1);
    for (int p = eqnn__order_first(&a->order, owner); p < end; p++) {
        int item = eqnn__order_item(&a->order, p);
        if (item < 0) continue;
        for (int t = a->has ? 0 : -1; t < (a->has ? a->slots : 0); t++) {
            if (t >= 0 && (t == a->slot || !(a->has >> t & 1))) continue;
            eqnn__plain_rows(a, item, t, row);
            sum += eqnn__plain_term(plan, a->slot, a->slots, column, row);
        }
    }
    return sum;
}

template <class P> static __global__ void eqnn__plain_kernel(const eqnn__plain_args a, const P plan)
{
    size_t cols = a.cols[a.slot];
    EQNN__STRIDE(n, a.numbers) {
        size_t owner = eqnn__over(n, cols, a.few);
        a.out[n] = eqnn__plain_sum(&a, &plan, (int)owner, (int)(n - owner * cols));
    }
}

/* One slot; what all rows share, by way of partial sums. */
template <class P>
static void eqnn__plain_run(eqnn__device *d, const eqnn__form *f, const P *plan,
                            eqnn__plain_args a, eqnn_real *out)
{
    int s = a.slot;
    size_t part = eqnn__form_partials(f, s);
    a.numbers = (size_t)a.order.owners * a.cols[s];
    a.few = eqnn__few(a.numbers);
    a.out = part ? (eqnn_real *)eqnn__scratch(d, EQNN__SCRATCH_PART, part * sizeof(eqnn_real))
                 : out;
    if (!a.out) return;
    EQNN__RUN(d, eqnn__plain_kernel<P>, eqnn__grid_of(a.numbers), EQNN__BLOCK, 0, a, *plan);
    if (part) eqnn__form_rows(d, &a.order, a.order.owners, a.cols[s], a.out, out);
}

/* What slot s is made of; 0: of no tangent at all, and it is zero. */
static int eqnn__plain_of(const eqnn__form *f, int s, const eqnn_real *const v[],
                          const eqnn_real *const t[], eqnn__plain_args *a)
{
    memset(a, 0, sizeof *a);
    a->order = eqnn__form_owners(f, s, f->map[s]);
    a->slots = f->slots;
    a->slot = s;
    for (int k = 0; k < f->slots; k++) {
        a->map[k] = f->map[k];
        a->cols[k] = f->cols[k] > 0 ? (size_t)f->cols[k] : 0;
        a->v[k] = v[k];
        a->t[k] = t ? t[k] : NULL;
        if (t && t[k] && f->cols[k] > 0) a->has |= 1u << k;
    }
    return !t || (a->has & ~(1u << s));
}

/* The wanted slots, one after the other. */
template <class P>
static void eqnn__plain_form(eqnn__device *d, const eqnn__form *f, const P *plan, unsigned want,
                             const eqnn_real *const v[], const eqnn_real *const t[],
                             eqnn_real *const out[])
{
    for (int s = 0; s < f->slots; s++) {
        eqnn__plain_args a;
        if (!(want >> s & 1)) continue;
        if (eqnn__plain_of(f, s, v, t, &a)) eqnn__plain_run(d, f, plan, a, out[s]);
        else eqnn__form_clear(d, f, s, out[s]);
    }
}

/* ---- poly ----

   Where rows of the wanted slot are items' own, a block has the rows of up to 32 items in shared
   memory, the columns that are used, number n of all items side by side. A lane has an item and
   takes columns of the result in turn, so that the lanes of a warp read one and the same record.
   Copies count as items, whose numbers lie side by side in global memory too.
   Bytes: every row once, and the records once for each block, from the first cache. Where rows are
   too long for that, or few and long, or an owner has several items, the plain loops do it. */

/* A record of a column of the result: the places of the N other slots' factors in shared memory. */
template <int N> struct alignas(16) eqnn__factors_of { eqnn_real c; int at[N]; };

/* Plans of up to 4 slots have short terms. */
enum { EQNN__TERM_SHORT = 3, EQNN__TERM_LONG = EQNN__SLOTS - 1 };

/* The records of a column of slot s are list[s][first[s][column]..]; record r reads column
   at[r slots + s] of slot s. Their terms, in this order, are term[s][..]; column[s]: the columns of
   slot s that are used. With several copies a column is a run of so many. */
typedef struct eqnn__poly_copy {
    int copies, columns[EQNN__SLOTS], used[EQNN__SLOTS];
    const int *first[EQNN__SLOTS], *list[EQNN__SLOTS], *column[EQNN__SLOTS], *at;
    const eqnn_real *c;
    const void *term[EQNN__SLOTS]; /* NULL: rows are too long */
} eqnn__poly_copy;

static __device__ inline eqnn_real eqnn__plain_term(const eqnn__poly_copy *p, int slot, int slots,
                                                    int column, const eqnn_real *const row[])
{
    eqnn_real sum = 0;
    int run = column / p->copies, u = column - run * p->copies;
    if (run >= p->columns[slot]) return 0;
    for (int n = p->first[slot][run]; n < p->first[slot][run + 1]; n++) {
        int r = p->list[slot][n];
        const int *at = p->at + (size_t)r * (size_t)slots;
        eqnn_real product = p->c[r];
#pragma unroll
        for (int s = 0; s < EQNN__SLOTS; s++)
            if (s < slots && s != slot && row[s]) product *= row[s][at[s] * p->copies + u];
        sum += product;
    }
    return sum;
}

/* first and list of records (or columns) 0..n-1 by what key[i step] says, on the device. */
static int eqnn__form_inverse(eqnn__device *d, int n, const int *key, size_t step, int *columns,
                              const int **first, const int **list)
{
    int most = 0;
    for (int i = 0; i < n; i++)
        most = key[(size_t)i * step] >= most ? key[(size_t)i * step] + 1 : most;
    size_t words = (size_t)most + 2 + (size_t)n;
    int *a = eqnn__host_array<int>(d, words), *to = a ? a + most + 2 : NULL;
    if (!a) return 0;
    for (int i = 0; i < n; i++) a[key[(size_t)i * step] + 2]++;
    for (int i = 0; i <= most; i++) a[i + 1] += a[i];
    for (int i = 0; i < n; i++) to[a[key[(size_t)i * step] + 1]++] = i;
    int *there = eqnn__gpu_upload(d, a, words);
    free(a);
    *columns = most;
    *first = there;
    *list = there ? there + most + 2 : NULL;
    return there != NULL;
}

/* The terms of slot s, in the order of its list, which is by columns. */
template <int N>
static const void *eqnn__poly_terms(eqnn__device *d, const eqnn__poly_plan_t *p, int s)
{
    size_t R = (size_t)p->records;
    eqnn__factors_of<N> *term = eqnn__host_array<eqnn__factors_of<N>>(d, R);
    const void *there = NULL;
    for (size_t i = 0; i < R && term; i++) {
        const int *col = p->col + (size_t)p->order[s][i] * (size_t)p->slots;
        int place = 0;
        term[i].c = p->c[p->order[s][i]];
        for (int k = 0, n = 0; k < p->slots; k++) {
            if (k == s) continue;
            term[i].at[n++] = place + col[k];
            place += p->used[k];
        }
    }
    if (term) there = eqnn__gpu_upload(d, term, R);
    free(term);
    return there;
}

static void eqnn__poly_make(eqnn__device *d, const eqnn__poly_plan_t *p, eqnn__poly_copy *to)
{
    size_t S = (size_t)p->slots, n = (size_t)p->records * S, places = 0;
    int *at = eqnn__host_array<int>(d, n);
    if (!at) return;
    for (size_t i = 0; i < n; i++) at[i] = p->column[i % S][p->col[i]];
    to->copies = p->copies;
    to->at = eqnn__gpu_upload(d, at, n);
    to->c = eqnn__gpu_upload(d, p->c, (size_t)p->records);
    for (int s = 0; s < p->slots; s++)
        if (!eqnn__form_inverse(d, p->records, at + s, S, to->columns + s, to->first + s,
                                to->list + s))
            break;
    free(at);
    for (int s = 0; s < p->slots; s++) places += (size_t)p->used[s];
    for (int s = 0; s < p->slots; s++) {
        to->used[s] = p->used[s];
        to->column[s] = eqnn__gpu_upload(d, p->column[s], (size_t)p->used[s]);
        if (places * EQNN__POLY_LEAST * sizeof(eqnn_real) <= eqnn__gpu_of(d)->shared)
            to->term[s] = p->slots - 1 > EQNN__TERM_SHORT
                              ? eqnn__poly_terms<EQNN__TERM_LONG>(d, p, s)
                              : eqnn__poly_terms<EQNN__TERM_SHORT>(d, p, s);
    }
}

typedef struct eqnn__poly_args {
    eqnn__arcs g;
    int64_t items;                    /* copies of them                                           */
    int copies, wide, places, cols;   /* wide: copies of a block; numbers of one; of its result   */
    int columns, others;              /* the columns with records; slots beside the wanted one    */
    int few;                          /* 32 bits are enough for the items                         */
    unsigned has;                     /* tangents that are there, of the others                   */
    int map[EQNN__SLOTS], used[EQNN__SLOTS];
    size_t ld[EQNN__SLOTS];
    const eqnn_real *v[EQNN__SLOTS], *t[EQNN__SLOTS]; /* v NULL: ones; t NULL: zeros              */
    const int *column[EQNN__SLOTS], *first;
    const void *term;
    eqnn_real *out;
} eqnn__poly_args;

/* Where number `column` of a copy of an item stands in rows of ld numbers. */
static __device__ __forceinline__ size_t eqnn__poly_at(const eqnn__poly_args &j, int map,
                                                       size_t ld, int64_t i, int column)
{
    int item = (int)(j.copies == 1 ? (size_t)i : eqnn__over((size_t)i, (size_t)j.copies, j.few));
    int u = (int)(i - (int64_t)item * j.copies);
    size_t row = (size_t)eqnn__arc_row(&j.g, map, item);
    return row * ld + (size_t)column * (size_t)j.copies + (size_t)u;
}

/* Which of n items and which of their numbers a thread takes i-th: numbers of an item, or those of
   several copies, lie side by side. */
static __device__ __forceinline__ void eqnn__poly_pick(const eqnn__poly_args &j, int i, int n,
                                                       int numbers, int *item, int *number)
{
    int across = j.copies == 1 ? numbers : n, far = i / across, near = i - far * across;
    *item = j.copies == 1 ? far : near;
    *number = j.copies == 1 ? near : far;
}

/* The columns in use of n items' rows, place by place; behind them those of their tangents. */
static __device__ __forceinline__ void eqnn__poly_rows(const eqnn__poly_args &j, int64_t from,
                                                       int n, eqnn_real *row)
{
    const int pitch = j.wide + 1;
    for (int k = 0; k < j.others; k++) {
        const int used = j.used[k];
        for (int i = (int)threadIdx.x; i < n * used; i += (int)blockDim.x) {
            int item, p;
            eqnn__poly_pick(j, i, n, used, &item, &p);
            size_t at = eqnn__poly_at(j, j.map[k], j.ld[k], from + item, j.column[k][p]);
            row[p * pitch + item] = j.v[k] ? __ldg(j.v[k] + at) : (eqnn_real)1;
            if (j.has) row[(j.places + p) * pitch + item] = j.t[k] ? __ldg(j.t[k] + at) : 0;
        }
        row += used * pitch;
    }
}

/* A number of the result: the sum of the products, or of those with one factor's tangent. */
template <int N, int T>
__device__ __forceinline__ eqnn_real eqnn__poly_number(const eqnn__poly_args &j, int column,
                                                       const eqnn_real *row)
{
    const eqnn__factors_of<N> *term = (const eqnn__factors_of<N> *)j.term;
    const int pitch = j.wide + 1, far = j.places * pitch;
    eqnn_real sum = 0;
    if (column >= j.columns) return 0;
#pragma unroll 4
    for (int r = j.first[column]; r < j.first[column + 1]; r++) {
        const eqnn__factors_of<N> t = term[r];
        eqnn_real f[N], product = t.c;
#pragma unroll
        for (int k = 0; k < N; k++)
            if (k < j.others) f[k] = row[t.at[k] * pitch];
#pragma unroll
        for (int k = 0; k < N && !T; k++)
            if (k < j.others) product *= f[k];
        if (!T) sum += product;
#pragma unroll
        for (int a = 0; a < N && T; a++) {
            if (!(j.has >> a & 1)) continue;
            product = t.c * row[far + t.at[a] * pitch];
#pragma unroll
            for (int k = 0; k < N; k++)
                if (k < j.others && k != a) product *= f[k];
            sum += product;
        }
    }
    return sum;
}

template <int N, int T>
static __global__ void eqnn__poly_kernel(const __grid_constant__ eqnn__poly_args j)
{
    EQNN_SHARED(eqnn_real, row);
    const int pitch = j.wide + 1, item = (int)threadIdx.x % j.wide;
    const int team = (int)threadIdx.x / j.wide, teams = (int)blockDim.x / j.wide;
    eqnn_real *sums = row + (T ? 2 : 1) * j.places * pitch;
    for (int64_t from = (int64_t)blockIdx.x * j.wide; from < j.items;
         from += (int64_t)gridDim.x * j.wide) {
        int n = j.items - from < j.wide ? (int)(j.items - from) : j.wide;
        eqnn__poly_rows(j, from, n, row);
        __syncthreads();
        for (int c = team; c < j.cols && item < n; c += teams)
            sums[c * pitch + item] = eqnn__poly_number<N, T>(j, c, row + item);
        __syncthreads();
        for (int i = (int)threadIdx.x; i < n * j.cols; i += (int)blockDim.x) {
            int q, c;
            eqnn__poly_pick(j, i, n, j.cols, &q, &c);
            size_t ld = (size_t)j.cols * (size_t)j.copies;
            j.out[eqnn__poly_at(j, EQNN__EACH, ld, from + q, c)] = sums[c * pitch + q];
        }
    }
}

/* Items of a block, for which so many numbers each fit into shared memory: 32, or fewer, whose
   lanes then are on several columns at a time; 0 when not even few do. */
static int eqnn__poly_wide(eqnn__device *d, size_t numbers)
{
    for (size_t wide = 32; wide >= EQNN__POLY_LEAST; wide /= 2) {
        size_t room = wide > EQNN__POLY_LEAST ? 49152 : eqnn__gpu_of(d)->shared;
        if (numbers * (wide + 1) * sizeof(eqnn_real) <= room) return (int)wide;
    }
    return 0;
}

static void eqnn__poly_run(eqnn__device *d, const eqnn__poly_args &j, int slots, size_t bytes)
{
    int warps = (j.cols * j.wide + 31) / 32, tangents = j.has != 0;
    size_t block = 32 * (size_t)(warps < 4 ? 4 : warps < 8 ? warps : 8);
    size_t grid = eqnn__grid_of(((size_t)j.items + (size_t)j.wide - 1) / (size_t)j.wide *
                                EQNN__BLOCK);
    if (slots - 1 > EQNN__TERM_SHORT) {
        if (tangents) EQNN__RUN(d, (eqnn__poly_kernel<EQNN__TERM_LONG, 1>), grid, block, bytes, j);
        else EQNN__RUN(d, (eqnn__poly_kernel<EQNN__TERM_LONG, 0>), grid, block, bytes, j);
    } else {
        if (tangents) EQNN__RUN(d, (eqnn__poly_kernel<EQNN__TERM_SHORT, 1>), grid, block, bytes, j);
        else EQNN__RUN(d, (eqnn__poly_kernel<EQNN__TERM_SHORT, 0>), grid, block, bytes, j);
    }
}

/* One slot, whose rows are items' own: 1 when it is done, 0 when rows are too long or too few. */
static int eqnn__poly_slot(eqnn__device *d, const eqnn__form *f, const eqnn__poly_copy *p,
                           const eqnn__plain_args *a, eqnn_real *out)
{
    eqnn__poly_args j;
    int s = a->slot;
    if (!p->term[s]) return 0;
    memset(&j, 0, sizeof j);
    for (int k = 0; k < a->slots; k++) {
        int n = j.others;
        if (k == s) continue;
        j.map[n] = a->map[k], j.used[n] = p->used[k], j.ld[n] = a->cols[k];
        j.v[n] = a->cols[k] ? a->v[k] : NULL;
        j.t[n] = a->has >> k & 1 ? a->t[k] : NULL;
        j.column[n] = p->column[k];
        j.has |= (a->has >> k & 1) << n;
        j.places += p->used[k];
        j.others++;
    }
    j.copies = p->copies;
    j.cols = (int)a->cols[s] / j.copies;
    size_t numbers = (size_t)j.places * (j.has ? 2 : 1) + (size_t)j.cols;
    j.wide = eqnn__poly_wide(d, numbers);
    j.items = (int64_t)f->items * j.copies;
    j.few = eqnn__few((size_t)j.items);
    if (!j.wide || (j.cols > EQNN__BLOCK && j.items / j.wide < EQNN__POLY_BLOCKS)) return 0;
    j.g = a->order.g;
    j.columns = p->columns[s];
    j.first = p->first[s];
    j.term = p->term[s];
    j.out = out;
    eqnn__poly_run(d, j, a->slots, numbers * (size_t)(j.wide + 1) * sizeof(eqnn_real));
    return 1;
}

static void eqnn__cuda_poly(eqnn__device *d, const eqnn__form *f, unsigned want,
                            const eqnn_real *const v[], const eqnn_real *const t[],
                            eqnn_real *const out[])
{
    const eqnn__poly_copy *p = eqnn__gpu_plan(d, f->plan, eqnn__poly_make);
    for (int s = 0; s < f->slots && p; s++) {
        eqnn__plain_args a;
        if (!(want >> s & 1)) continue;
        if (f->map[s] == EQNN__EACH && eqnn__plain_of(f, s, v, t, &a) &&
            eqnn__poly_slot(d, f, p, &a, out[s]))
            continue;
        eqnn__plain_form(d, f, p, 1u << s, v, t, out);
    }
}

/* copy: g[c] = a[c] b[map[c]]; list[first[b]..] are the columns that read column b */
typedef struct eqnn__copy_copy {
    int columns;
    const int *map, *first, *list;
} eqnn__copy_copy;

static __device__ inline eqnn_real eqnn__plain_term(const eqnn__copy_copy *p, int slot, int slots,
                                                    int column, const eqnn_real *const row[])
{
    eqnn_real sum = 0;
    (void)slots;
    if (slot == 0) return row[2][column] * row[1][p->map[column]];
    if (slot == 2) return row[0][column] * row[1][p->map[column]];
    if (column >= p->columns) return 0;
    for (int n = p->first[column]; n < p->first[column + 1]; n++)
        sum += row[2][p->list[n]] * row[0][p->list[n]];
    return sum;
}

static void eqnn__copy_make(eqnn__device *d, const eqnn__copy_plan_t *p, eqnn__copy_copy *to)
{
    int n = p->runs ? p->run[p->runs - 1].first + p->run[p->runs - 1].count : 0;
    int *map = eqnn__host_array<int>(d, (size_t)n);
    if (!map) return;
    for (int r = 0; r < p->runs; r++)
        for (int c = 0; c < p->run[r].count; c++)
            map[p->run[r].first + c] = p->run[r].b + c * p->run[r].step;
    to->map = eqnn__gpu_upload(d, map, (size_t)n);
    eqnn__form_inverse(d, n, map, 1, &to->columns, &to->first, &to->list);
    free(map);
}

static void eqnn__cuda_copies(eqnn__device *d, const eqnn__form *f, unsigned want,
                              const eqnn_real *const v[], const eqnn_real *const t[],
                              eqnn_real *const out[])
{
    const eqnn__copy_copy *p = eqnn__gpu_plan(d, f->plan, eqnn__copy_make);
    if (p) eqnn__plain_form(d, f, p, want, v, t, out);
}

/* mix, slots x w g, where rows are not their items' own: block by block */
typedef struct eqnn__mix_copy {
    int blocks;
    const eqnn__mix_block *block;
} eqnn__mix_copy;

static __device__ inline eqnn_real eqnn__mix_dot(const eqnn_real *a, int as, const eqnn_real *b,
                                                 int bs, int n)
{
    eqnn_real sum = 0;
    for (int i = 0; i < n; i++) sum += a[i * as] * b[i * bs];
    return sum;
}

static __device__ inline eqnn_real eqnn__plain_term(const eqnn__mix_copy *p, int slot, int slots,
                                                    int column, const eqnn_real *const row[])
{
    eqnn_real sum = 0;
    (void)slots;
    for (int b = 0; b < p->blocks; b++) {
        const eqnn__mix_block m = p->block[b];
        eqnn_real scale = (eqnn_real)m.scale;
        int n = column - m.w;
        if (slot == 1 && n >= 0 && n < m.U * m.V)
            sum += scale * eqnn__mix_dot(row[0] + m.x + n / m.V, m.xs, row[2] + m.g + n % m.V, m.gs,
                                         m.d);
        for (int i = 0; i < m.d && slot != 1; i++) {
            n = column - (slot ? m.g + i * m.gs : m.x + i * m.xs);
            if (n < 0 || n >= (slot ? m.V : m.U)) continue;
            sum += scale * (slot ? eqnn__mix_dot(row[0] + m.x + i * m.xs, 1, row[1] + m.w + n, m.V,
                                                 m.U)
                                 : eqnn__mix_dot(row[2] + m.g + i * m.gs, 1,
                                                 row[1] + m.w + n * m.V, 1, m.V));
        }
    }
    return sum;
}

static void eqnn__mix_make(eqnn__device *d, const eqnn__mix_plan_t *p, eqnn__mix_copy *to)
{
    to->blocks = p->blocks;
    to->block = eqnn__gpu_upload(d, p->block, (size_t)p->blocks);
}

/* Where rows are their items' own and weights all share, or every row has its own: plain matrix
   products, a batch of components or of rows (the loops of the processor's eqnn__mix_products). */
static void eqnn__mix_gemm(eqnn__device *d, const eqnn__form *f, const eqnn__mix_block *m, int slot,
                           const eqnn_real *const v[], eqnn_real *out, double beta)
{
    size_t U = (size_t)m->U, V = (size_t)m->V, xs = (size_t)m->xs, gs = (size_t)m->gs;
    size_t x = (size_t)m->x, w = (size_t)m->w, g = (size_t)m->g, n = (size_t)f->items;
    size_t rows = n, ldx = (size_t)f->cols[0], ldg = (size_t)f->cols[2], sx = xs, sg = gs, sw = 0;
    size_t batch = (size_t)m->d;
    if (f->map[1] == EQNN__EACH) {
        rows = batch, batch = n;
        sx = ldx, sg = ldg, sw = (size_t)f->cols[1];
        ldx = xs, ldg = gs;
    }
    if (slot == 0)
        eqnn__cuda_gemm(d, 0, 1, rows, U, V, m->scale, v[2] + g, ldg, sg, v[1] + w, V, sw, beta,
                        out + x, ldx, sx, batch);
    else if (slot == 1)
        eqnn__cuda_gemm(d, 1, 0, U, V, rows, m->scale, v[0] + x, ldx, sx, v[2] + g, ldg, sg, beta,
                        out + w, V, sw, batch);
    else
        eqnn__cuda_gemm(d, 0, 0, rows, V, U, m->scale, v[0] + x, ldx, sx, v[1] + w, V, sw, beta,
                        out + g, ldg, sg, batch);
}

static void eqnn__mix_slot(eqnn__device *d, const eqnn__form *f, int slot,
                           const eqnn_real *const v[], const eqnn_real *const t[], eqnn_real *out)
{
    const eqnn__mix_plan_t *p = (const eqnn__mix_plan_t *)f->plan;
    int add = 0, whole = p->covered[slot] == f->cols[slot];
    for (int a = t ? 0 : -1; a < (t ? 3 : 0); a++) {
        const eqnn_real *u[3] = { v[0], v[1], v[2] };
        if (a >= 0 && (a == slot || !t[a])) continue;
        if (a >= 0) u[a] = t[a];
        if (!add && !whole) eqnn__form_clear(d, f, slot, out);
        for (int b = 0; b < p->blocks; b++)
            eqnn__mix_gemm(d, f, p->block + b, slot, u, out, add || !p->fresh[3 * b + slot]);
        add = 1;
    }
    if (!add) eqnn__form_clear(d, f, slot, out);
}

static void eqnn__cuda_mix(eqnn__device *d, const eqnn__form *f, unsigned want,
                           const eqnn_real *const v[], const eqnn_real *const t[],
                           eqnn_real *const out[])
{
    if (eqnn__mix_is_products(f)) {
        for (int s = 0; s < 3; s++)
            if (want >> s & 1) eqnn__mix_slot(d, f, s, v, t, out[s]);
        return;
    }
    const eqnn__mix_copy *p = eqnn__gpu_plan(d, f->plan, eqnn__mix_make);
    if (p) eqnn__plain_form(d, f, p, want, v, t, out);
}

/* ---- radial: matrices R = h V of a tile of rows, then a small product for each row ----

   Bytes: x, h and g or their gradients once; R is written and read within the second cache. */

static size_t eqnn__form_tile_rows(size_t reals, int items)
{
    size_t rows = EQNN__FORM_BYTES / (reals * sizeof(eqnn_real));
    rows = rows < 256 ? 256 : rows;
    rows = rows < EQNN__FORM_TILE ? rows : EQNN__FORM_TILE;
    return rows < (size_t)items ? rows : (size_t)items;
}

/* Rows p..p+n-1 of the slots in want, from v: = or, where added says so, += */
static void eqnn__radial_rows(eqnn__device *d, const eqnn__form *f, const eqnn_real *const v[],
                              size_t p, size_t n, eqnn_real *const out[], unsigned want,
                              unsigned added, eqnn_real *R)
{
    const eqnn__radial_plan *q = (const eqnn__radial_plan *)f->plan;
    size_t D = (size_t)q->d, U = (size_t)q->U, V = (size_t)q->V, UV = U * V;
    size_t H = (size_t)f->cols[1], X = D * U, G = D * V;
    eqnn_real *dR = R;
    double keep[4];
    for (int s = 0; s < 4; s++) keep[s] = (added >> s & 1) || (s == 2 && p > 0) ? 1 : 0;
    if (want & 9)
        eqnn__cuda_gemm(d, 0, 0, n, UV, H, 1, v[1] + p * H, H, 0, v[2], UV, 0, 0, R, UV, 0, 1);
    if (want & 8)
        eqnn__cuda_gemm(d, 0, 0, D, V, U, 1, v[0] + p * X, U, X, R, V, UV, keep[3],
                        out[3] + p * G, V, G, n);
    if (want & 1)
        eqnn__cuda_gemm(d, 0, 1, D, U, V, 1, v[3] + p * G, V, G, R, V, UV, keep[0],
                        out[0] + p * X, U, X, n);
    if (want & 6)
        eqnn__cuda_gemm(d, 1, 0, U, V, D, 1, v[0] + p * X, U, X, v[3] + p * G, V, G, 0, dR, V, UV,
                        n);
    if (want & 2)
        eqnn__cuda_gemm(d, 0, 1, n, H, UV, 1, dR, UV, 0, v[2], UV, 0, keep[1], out[1] + p * H, H, 0,
                        1);
    if (want & 4)
        eqnn__cuda_gemm(d, 1, 0, H, UV, n, 1, v[1] + p * H, H, 0, dR, UV, 0, keep[2],
                        out[2], UV, 0, 1);
}

static void eqnn__cuda_radial(eqnn__device *d, const eqnn__form *f, unsigned want,
                              const eqnn_real *const v[], const eqnn_real *const t[],
                              eqnn_real *const out[])
{
    const eqnn__radial_plan *q = (const eqnn__radial_plan *)f->plan;
    size_t UV = (size_t)q->U * (size_t)q->V, items = (size_t)f->items;
    unsigned made = 0;
    if (UV && q->d > 0) {
        size_t rows = eqnn__form_tile_rows(UV, f->items);
        eqnn_real *R = (eqnn_real *)eqnn__scratch(d, EQNN__SCRATCH_FORM,
                                                  rows * UV * sizeof(eqnn_real));
        for (int a = t ? 0 : -1; a < (t ? 4 : 0) && R; a++) {
            const eqnn_real *u[4] = { v[0], v[1], v[2], v[3] };
            unsigned now = a >= 0 ? want & ~(1u << a) : want;
            if (a >= 0 && !t[a]) continue;
            if (a >= 0) u[a] = t[a];
            for (size_t p = 0; p < items; p += rows)
                eqnn__radial_rows(d, f, u, p, items - p < rows ? items - p : rows, out, now, made,
                                  R);
            made |= now;
        }
    }
    for (int s = 0; s < 4; s++)
        if ((want & ~made) >> s & 1) eqnn__form_clear(d, f, s, out[s]);
}

/* ---- couple ----

   A block has some owners; it takes their items EQNN__FORM_EDGES at a time, makes M = C y of these
   in shared memory (a path's matrix once, for all its channels), and its warps share the paths: a
   task is what writes one run of components and channels, with the lanes on the channels (16 bytes
   each where rows lie so) and on several items, and the sums in registers over the items of an
   owner:

       G   dg[k] = sum w M[i][k] x[i]            W   dw = sum x[i] M[i][k] g[k]
       X   dx[i] = sum w M[i][k] g[k]            Y   dy[j] = sum C[i][j][k] (sum_u w x[i] g[k])

   Bytes a pass must move: x (or g) gathered, and dg (dx) once for every owner; y, and w or dw, once
   for every item; where dx is summed apart (eqnn__couple_apart), dx written and read once for every
   item instead of g gathered. When w = h V is made here, h is what is read for every item instead:
   w and dw are made a tile at a time, in working memory that stays in the second cache. */

enum { EQNN__ROLE_G, EQNN__ROLE_X, EQNN__ROLE_W, EQNN__ROLE_Y, EQNN__ROLES };

/* A piece of a path, at most 7 by 7 components, both odd, so that sixteen loops do for all sizes.
   M[i][k] stands at m + i ld + k of a phase's numbers, ld 1, 4 or 8 (role Y: d3); diagonal: M[k][k]
   at m + k. */
typedef struct eqnn__part { int d1, d3, diagonal, channels, x, xs, g, gs, w, ws, m; } eqnn__part;

/* Pieces that write the same numbers. add: a bundle of an earlier phase wrote some of them; packs:
   16 bytes of neighbouring channels lie together in all rows, if rows begin at such a border. */
typedef struct eqnn__bundle { int part, parts, channels, add, packs; } eqnn__bundle;
typedef struct eqnn__task { int bundle, first; } eqnn__task; /* some channels, from which on */

/* Channels of a task: those of 32 lanes; in role X, where tasks are few and some much longer than
   others, 32, of several items at a time, for there to be enough that warps get equal shares. */
EQNN__HD static constexpr int eqnn__task_channels(int role, int packs)
{
    return packs && role != EQNN__ROLE_X ? 32 * EQNN__PACK : 32;
}

/* An entry of M and its records; a column of y and what adds to it. Aligned so that each is read
   at once. */
typedef struct alignas(16) eqnn__entry { int to, first, count, pad; } eqnn__entry;
typedef struct alignas(16) eqnn__sum { int column, add, first, count; } eqnn__sum;
typedef struct alignas(2 * sizeof(eqnn_real)) eqnn__summand { int at; eqnn_real c; } eqnn__summand;

/* Bundles that may be worked on at the same time, and whose M fit shared memory. */
typedef struct eqnn__phase {
    int task, tasks, bundle, bundles, entry, entries, sum, sums;
} eqnn__phase;

typedef struct eqnn__role {
    int phases, tasks, size; /* most tasks of a phase; numbers of an item's M             */
    int covered;             /* columns that are written; -1: some are added to unwritten */
    int alone;               /* no two pieces have a weight in common                     */
    const eqnn__part *part;
    const eqnn__bundle *bundle;
    const eqnn__task *task;
    const eqnn__phase *phase;
    const eqnn__entry *entry;
    const eqnn__sum *sum;
    const eqnn__summand *term, *record; /* of sums; of entries */
} eqnn__role;

typedef struct eqnn__couple_copy { eqnn__role role[EQNN__ROLES]; } eqnn__couple_copy;

/* -- the copy of a plan -- */

/* A growing array of the host. bad: memory ran out, and nothing is added any more. */
template <class T> struct eqnn__list { T *p; size_t n, room; int bad; };

template <class T> static void eqnn__list_add(eqnn__list<T> *a, const T &item)
{
    if (a->n == a->room && !a->bad) {
        size_t room = a->room ? 2 * a->room : 64;
        T *p = (T *)realloc(a->p, room * sizeof *p);
        if (p) a->p = p, a->room = room;
        else a->bad = 1;
    }
    if (!a->bad) a->p[a->n++] = item;
}

/* Uploads a list and forgets it. */
template <class T> static const T *eqnn__list_up(eqnn__device *d, eqnn__list<T> *a)
{
    const T *there = NULL;
    if (a->bad) eqnn__gpu_fail(d, "out of memory on the host");
    else there = eqnn__gpu_upload(d, a->p, a->n);
    free(a->p);
    return there;
}

/* A piece while the copy is made: of which path, from which components on; then where it went. */
typedef struct eqnn__cut { eqnn__part part; int step, i, k, bundle; } eqnn__cut;

/* The M of a piece in a phase. */
typedef struct eqnn__placed { int phase, block, i, k, d1, d3, m, cut; } eqnn__placed;

typedef struct eqnn__draft { /* of a role */
    const eqnn__couple_plan_t *plan;
    int role, phases, *fill, *mark; /* numbers of each phase; last bundle of a column, + 1 */
    eqnn__list<eqnn__cut> cut;
    eqnn__list<eqnn__placed> placed;
    eqnn__list<eqnn__bundle> bundle;
    eqnn__list<int> in;             /* the phase of each bundle                            */
} eqnn__draft;

static int eqnn__cut_size(int n)
{
    return n >= EQNN__D ? EQNN__D : (n - 1) / 2 * 2 + 1;
}

/* Channels that share a weight are taken one at a time. */
static void eqnn__cut_path(eqnn__list<eqnn__cut> *cuts, const eqnn__couple_plan_t *p, int step)
{
    const eqnn__step *s = p->path + step;
    int each = s->w >= 0 && s->ws == 0 ? 1 : s->channels;
    for (int u = 0; u < s->channels; u += each)
        for (int i = 0, d1; i < s->d1; i += d1) {
            d1 = eqnn__cut_size(s->d1 - i);
            for (int k = s->diagonal ? i : 0, d3; k < (s->diagonal ? i + d1 : s->d3); k += d3) {
                eqnn__cut c;
                d3 = s->diagonal ? d1 : eqnn__cut_size(s->d3 - k);
                memset(&c, 0, sizeof c);
                c.step = step, c.i = i, c.k = k;
                c.part.d1 = d1, c.part.d3 = d3, c.part.diagonal = s->diagonal;
                c.part.channels = each;
                c.part.x = s->x + i * s->xs + u, c.part.xs = s->xs;
                c.part.g = s->g + k * s->gs + u, c.part.gs = s->gs;
                c.part.w = s->w, c.part.ws = s->ws;
                eqnn__list_add(cuts, c);
            }
        }
}

/* How far apart rows of its M are: role Y writes them, the others read them 16 bytes at a time. */
static int eqnn__part_row(const eqnn__part *p, int role)
{
    return p->d3 == 1 || role == EQNN__ROLE_Y ? p->d3 : p->d3 == 3 ? 4 : 8;
}

/* Numbers of its M in shared memory, whole quadruples. */
static int eqnn__part_size(const eqnn__part *p, int role)
{
    int n = p->diagonal ? p->d3 : (p->d1 - 1) * eqnn__part_row(p, role) + p->d3;
    return (n + 3) / 4 * 4;
}

/* May a lane take 16 bytes of neighbouring channels of a piece at a time? */
static int eqnn__part_packs(const eqnn__part *p)
{
    int weights = p->w < 0 ? 0 : p->ws == 1 ? p->w : 1;
    return (p->channels | p->x | p->xs | p->g | p->gs | weights) % EQNN__PACK == 0;
}

/* What a piece writes in a role: components at a distance, of so many channels. */
static void eqnn__part_target(const eqnn__part *p, int role, int to[4])
{
    to[0] = role == EQNN__ROLE_G ? p->g : role == EQNN__ROLE_X ? p->x : p->w;
    to[1] = role == EQNN__ROLE_G ? p->gs : role == EQNN__ROLE_X ? p->xs : 0;
    to[2] = role == EQNN__ROLE_G ? p->d3 : role == EQNN__ROLE_X ? p->d1 : 1;
    to[3] = role == EQNN__ROLE_W ? p->ws : 1;
}

static int eqnn__part_column(const eqnn__part *p, const int to[4], int n)
{
    return to[0] + n / p->channels * to[1] + n % p->channels * to[3];
}

static int eqnn__part_same(const eqnn__draft *a, const eqnn__cut *b, const eqnn__cut *c)
{
    int s[4], t[4];
    if (a->role == EQNN__ROLE_Y)
        return a->plan->path[b->step].block == a->plan->path[c->step].block && b->i == c->i &&
               b->k == c->k && b->part.d1 == c->part.d1 && b->part.d3 == c->part.d3;
    eqnn__part_target(&b->part, a->role, s);
    eqnn__part_target(&c->part, a->role, t);
    return b->part.channels == c->part.channels && s[0] == t[0] && s[1] == t[1] && s[2] == t[2] &&
           s[3] == t[3];
}

/* The M of a piece in a phase: its place, -1 when there is no room. */
static int eqnn__draft_place(eqnn__draft *a, const eqnn__cut *c, int phase, int keep)
{
    eqnn__placed p = { phase, a->plan->path[c->step].block, c->i, c->k, c->part.d1, c->part.d3,
                       a->fill[phase], 0 };
    const eqnn__placed *all = a->placed.p;
    int size = eqnn__part_size(&c->part, a->role);
    for (size_t n = 0; n < a->placed.n; n++)
        if (all[n].phase == phase && all[n].block == p.block && all[n].i == p.i &&
            all[n].k == p.k && all[n].d1 == p.d1 && all[n].d3 == p.d3)
            return all[n].m;
    if (p.m && p.m + size > EQNN__FORM_ENTRIES) return -1;
    if (keep) {
        a->fill[phase] += size;
        p.cut = (int)(c - a->cut.p);
        eqnn__list_add(&a->placed, p);
    }
    return p.m;
}

/* Puts a piece into the bundle that writes what it writes, else into a new one: of a phase after
   all that write something of it. */
static void eqnn__draft_put(eqnn__draft *a, eqnn__cut *cuts, int n, eqnn__role *r)
{
    eqnn__cut *c = cuts + n;
    int to[4], size = 0, phase = 0, join = -1, last = 0, fresh = 0, seen = 0;
    const int *in = a->in.p;
    eqnn__part_target(&c->part, a->role, to);
    if (a->role != EQNN__ROLE_Y) size = to[2] * c->part.channels;
    for (int i = 0; i < size; i++) {
        int b = a->mark[eqnn__part_column(&c->part, to, i)] - 1;
        join = i == 0 || join == b ? b : -1;
        fresh += b < 0;
        seen += b >= 0;
        if (b >= 0 && in[b] >= phase) phase = in[b] + 1;
    }
    for (int i = 0; i < n && a->role == EQNN__ROLE_Y && join < 0; i++)
        if (eqnn__part_same(a, cuts + i, c)) join = cuts[i].bundle;
    for (int i = 0; i < n && join >= 0 && !last; i++)
        last = cuts[i].bundle == join && eqnn__part_same(a, cuts + i, c) &&
               eqnn__draft_place(a, c, in[join], 0) >= 0;
    if (last) {
        eqnn__bundle *b = a->bundle.p + join;
        if (b->channels < c->part.channels) b->channels = c->part.channels;
        c->bundle = join;
        eqnn__draft_place(a, c, in[join], 1);
        return;
    }
    while (eqnn__draft_place(a, c, phase, 1) < 0) phase++;
    if (phase >= a->phases) a->phases = phase + 1;
    eqnn__bundle b = { 0, 0, c->part.channels, seen > 0, 0 };
    if (seen && fresh) r->covered = -1;
    c->bundle = (int)a->bundle.n;
    eqnn__list_add(&a->bundle, b);
    eqnn__list_add(&a->in, phase);
    for (int i = 0; i < size; i++) {
        int *mark = a->mark + eqnn__part_column(&c->part, to, i);
        if (!*mark && r->covered >= 0) r->covered++;
        *mark = (int)a->bundle.n;
    }
}

/* Lists that a role uploads. */
typedef struct eqnn__sheet {
    eqnn__list<eqnn__part> part;
    eqnn__list<eqnn__bundle> bundle;
    eqnn__list<eqnn__task> task;
    eqnn__list<eqnn__phase> phase;
    eqnn__list<eqnn__entry> entry;
    eqnn__list<eqnn__sum> sum;
    eqnn__list<eqnn__summand> term;
} eqnn__sheet;

/* Entries of M of a phase, with their records in the plan. */
static void eqnn__sheet_entries(eqnn__sheet *o, const eqnn__draft *a, int phase)
{
    const eqnn__placed *all = a->placed.p;
    for (size_t n = 0; n < a->placed.n; n++) {
        const eqnn__cut *c = a->cut.p + all[n].cut;
        const eqnn__step *s = a->plan->path + c->step;
        if (all[n].phase != phase) continue;
        for (int i = 0; i < c->part.d1; i++)
            for (int k = 0; k < (c->part.diagonal ? 1 : c->part.d3); k++) {
                int from = s->m + (s->diagonal ? c->i + i : (c->i + i) * s->d3 + c->k + k);
                eqnn__entry e;
                e.to = all[n].m + (s->diagonal ? i : i * eqnn__part_row(&c->part, a->role) + k);
                e.first = a->plan->first[from];
                e.count = a->plan->first[from + 1] - e.first;
                e.pad = 0;
                eqnn__list_add(&o->entry, e);
            }
    }
}

/* What a placed M adds to a column of y. */
static void eqnn__sheet_terms(eqnn__sheet *o, const eqnn__draft *a, const eqnn__placed *placed,
                              int column)
{
    const eqnn__couple_plan_t *p = a->plan;
    const eqnn__cut *c = a->cut.p + placed->cut;
    const eqnn__step *s = p->path + c->step;
    const eqnn__span back = p->back[placed->block];
    for (int q = back.first; q < back.first + back.count; q++)
        for (int r = p->group[q].first; r < p->group[q].first + p->group[q].count; r++) {
            int e = p->back_entry[r], i = (s->diagonal ? e : e / s->d3) - c->i;
            int k = (s->diagonal ? e : e % s->d3) - c->k;
            eqnn__summand t;
            memset(&t, 0, sizeof t);
            if (p->group[q].column != column || i < 0 || k < 0 || i >= c->part.d1 ||
                k >= c->part.d3)
                continue;
            t.at = placed->m + (s->diagonal ? i : i * c->part.d3 + k);
            t.c = p->back_c[r];
            eqnn__list_add(&o->term, t);
        }
}

/* Columns of y that a phase adds to. */
static void eqnn__sheet_sums(eqnn__sheet *o, eqnn__draft *a, int phase, eqnn__role *r)
{
    const eqnn__placed *all = a->placed.p;
    for (int c = 0; c < a->plan->columns; c++) {
        eqnn__sum s = { a->plan->column[c], a->mark[c], (int)o->term.n, 0 };
        for (size_t n = 0; n < a->placed.n; n++)
            if (all[n].phase == phase) eqnn__sheet_terms(o, a, all + n, c);
        s.count = (int)o->term.n - s.first;
        if (!s.count) continue;
        if (!a->mark[c]) r->covered++;
        a->mark[c] = 1;
        eqnn__list_add(&o->sum, s);
    }
}

/* The bundles of a phase, their pieces and tasks. */
static void eqnn__sheet_bundles(eqnn__sheet *o, eqnn__draft *a, int phase)
{
    const int *in = a->in.p;
    eqnn__cut *cuts = a->cut.p;
    for (int b = 0; b < (int)a->bundle.n; b++) {
        eqnn__bundle q = a->bundle.p[b];
        if (in[b] != phase) continue;
        q.part = (int)o->part.n;
        q.packs = 1;
        for (size_t n = 0; n < a->cut.n; n++) {
            if (cuts[n].bundle != b) continue;
            cuts[n].part.m = eqnn__draft_place(a, cuts + n, phase, 0);
            q.packs &= eqnn__part_packs(&cuts[n].part);
            eqnn__list_add(&o->part, cuts[n].part);
        }
        q.parts = (int)o->part.n - q.part;
        eqnn__task t = { (int)o->bundle.n, 0 };
        int step = eqnn__task_channels(a->role, q.packs);
        for (; t.first < q.channels && a->role != EQNN__ROLE_Y; t.first += step)
            eqnn__list_add(&o->task, t);
        eqnn__list_add(&o->bundle, q);
    }
}

static void eqnn__sheet_phase(eqnn__sheet *o, eqnn__draft *a, int phase, eqnn__role *r)
{
    eqnn__phase p;
    p.task = (int)o->task.n, p.bundle = (int)o->bundle.n;
    p.entry = (int)o->entry.n, p.sum = (int)o->sum.n;
    eqnn__sheet_bundles(o, a, phase);
    if (a->role == EQNN__ROLE_Y) eqnn__sheet_sums(o, a, phase, r);
    else eqnn__sheet_entries(o, a, phase);
    p.tasks = (int)o->task.n - p.task, p.bundles = (int)o->bundle.n - p.bundle;
    p.entries = (int)o->entry.n - p.entry, p.sums = (int)o->sum.n - p.sum;
    r->tasks = p.tasks > r->tasks ? p.tasks : r->tasks;
    r->size = a->fill[phase] > r->size ? a->fill[phase] : r->size;
    eqnn__list_add(&o->phase, p);
}

static void eqnn__sheet_upload(eqnn__device *d, eqnn__sheet *o, eqnn__role *r)
{
    r->part = eqnn__list_up(d, &o->part);
    r->bundle = eqnn__list_up(d, &o->bundle);
    r->task = eqnn__list_up(d, &o->task);
    r->phase = eqnn__list_up(d, &o->phase);
    r->entry = eqnn__list_up(d, &o->entry);
    r->sum = eqnn__list_up(d, &o->sum);
    r->term = eqnn__list_up(d, &o->term);
}

/* Columns that pieces of a role may write, at least those of y. */
static int eqnn__draft_columns(const eqnn__draft *a)
{
    int most = a->plan->columns;
    const eqnn__cut *cuts = a->cut.p;
    for (size_t n = 0; n < a->cut.n && a->role != EQNN__ROLE_Y; n++) {
        int to[4], last;
        eqnn__part_target(&cuts[n].part, a->role, to);
        last = to[0] + (to[2] - 1) * to[1] + (cuts[n].part.channels - 1) * to[3];
        most = last >= most ? last + 1 : most;
    }
    return most;
}

static int eqnn__draft_bad(const eqnn__draft *a)
{
    return a->cut.bad || a->bundle.bad || a->placed.bad || a->in.bad;
}

static void eqnn__draft_role(eqnn__device *d, eqnn__draft *a, eqnn__role *r)
{
    eqnn__sheet o;
    memset(&o, 0, sizeof o);
    for (size_t n = 0; n < a->cut.n && !eqnn__draft_bad(a); n++)
        eqnn__draft_put(a, a->cut.p, (int)n, r);
    o.part.bad = eqnn__draft_bad(a);
    for (int p = 0; p < a->phases && !o.part.bad; p++) eqnn__sheet_phase(&o, a, p, r);
    r->size |= 4; /* the M of neighbouring items begin in different banks */
    r->phases = a->phases;
    r->alone = a->bundle.n == a->cut.n && r->covered >= 0;
    for (size_t n = 0; n < a->bundle.n; n++)
        r->alone &= !a->bundle.p[n].add;
    eqnn__sheet_upload(d, &o, r);
}

static void eqnn__couple_role(eqnn__device *d, const eqnn__couple_plan_t *p, int role,
                              eqnn__role *r)
{
    eqnn__draft a;
    memset(&a, 0, sizeof a);
    a.plan = p;
    a.role = role;
    for (int s = 0; s < p->paths; s++)
        if (role != EQNN__ROLE_W || p->path[s].w >= 0) eqnn__cut_path(&a.cut, p, s);
    a.fill = eqnn__host_array<int>(d, a.cut.n + 1);
    a.mark = eqnn__host_array<int>(d, (size_t)eqnn__draft_columns(&a));
    if (a.fill && a.mark) eqnn__draft_role(d, &a, r);
    free(a.fill);
    free(a.mark);
    free(a.cut.p);
    free(a.bundle.p);
    free(a.placed.p);
    free(a.in.p);
}

static void eqnn__couple_make(eqnn__device *d, const eqnn__couple_plan_t *p, eqnn__couple_copy *to)
{
    eqnn__list<eqnn__summand> record;
    memset(&record, 0, sizeof record);
    for (int r = 0; p->entries && r < p->first[p->entries]; r++) {
        eqnn__summand s;
        memset(&s, 0, sizeof s);
        s.at = p->column[p->j[r]], s.c = p->c[r];
        eqnn__list_add(&record, s);
    }
    const eqnn__summand *there = eqnn__list_up(d, &record);
    for (int role = 0; role < EQNN__ROLES; role++) {
        eqnn__couple_role(d, p, role, to->role + role);
        to->role[role].record = there;
    }
}

/* -- what the kernel does -- */

/* An item in shared memory: where its rows begin, in reals. The items of its owner that are there
   end before `end`; begin: the owner has none before this one. */
typedef struct eqnn__member { size_t x, y, w, g, out, dw; int item, end, begin, pad; } eqnn__member;

typedef struct eqnn__couple_args {
    eqnn__owners order;
    eqnn__role role;
    int from, to, span, edges; /* positions; of a block; most items in shared memory            */
    int each;                  /* every item is an owner                                        */
    int tile, tile_out;        /* rows of w and dw, of out, are positions from `from` on        */
    int weighted, weights;     /* leave out paths without weights; there are weights            */
    int packs;                 /* rows begin at borders of 16 bytes                             */
    int map[5];
    size_t cols[5], out_cols;
    const eqnn_real *v[5], *t[5]; /* v[2], t[2]: w itself; NULL: nothing asks for it, or zero   */
    eqnn_real *out, *out0;        /* out0: of role W with tangents, dw from the values          */
    eqnn_real *dw, *dw0;          /* of role X                                                  */
} eqnn__couple_args;

/* Asks for the cache line at p, and does not wait for it. */
static __device__ __forceinline__ void eqnn__soon(const eqnn_real *p)
{
#ifdef __CUDA_ARCH__
    asm volatile("prefetch.global.L2 [%0];" ::"l"(p));
#else
    (void)p;
#endif
}

/* The rows of n items from position p on. */
static __device__ inline void eqnn__couple_items(const eqnn__couple_args *a, int p, int n,
                                                 eqnn__member *items)
{
    for (int j = (int)threadIdx.x; j < n; j += (int)blockDim.x) {
        eqnn__member t;
        int item = eqnn__order_item(&a->order, p + j), at = item < 0 ? 0 : item;
        int owner = a->each ? 0 : eqnn__order_owner(&a->order, p + j), row = p + j - a->from;
        const eqnn__arcs *g = &a->order.g;
        t.item = item;
        t.x = (size_t)eqnn__arc_row(g, a->map[0], at) * a->cols[0];
        t.y = (size_t)eqnn__arc_row(g, a->map[1], at) * a->cols[1];
        t.g = (size_t)eqnn__arc_row(g, a->map[4], at) * a->cols[4];
        t.w = (size_t)(a->tile ? row : eqnn__arc_row(g, a->map[2], at)) * a->cols[2];
        t.dw = (size_t)(a->tile ? row : at) * a->cols[2];
        t.out = (size_t)(!a->each ? owner : a->tile_out ? row : at) * a->out_cols;
        t.end = a->each ? j + 1 : eqnn__order_first(&a->order, owner + 1) - p;
        t.end = t.end < n ? t.end : n;
        t.begin = a->each || eqnn__order_first(&a->order, owner) == p + j;
        t.pad = 0;
        items[j] = t;
    }
}

/* Rows of a slot that n items from position p on have for themselves are soon read: a cache line
   after the other is asked for, so that they come from the second cache when a warp waits for
   them. What several items read is mostly there already. */
static __device__ inline void eqnn__couple_soon(const eqnn__couple_args *a, int slot, int p, int n)
{
    const size_t line = 128 / sizeof(eqnn_real), cols = a->cols[slot];
    int lane = (int)threadIdx.x % 32, warps = (int)blockDim.x / 32;
    int tile = a->tile && slot == 2, map = a->map[slot];
    if (!a->v[slot] || !(tile || map == EQNN__EACH || map == EQNN__PAIR)) return;
    for (int j = (int)threadIdx.x / 32; j < n; j += warps) {
        int item = eqnn__order_item(&a->order, p + j), at = item < 0 ? 0 : item;
        int row = tile ? p + j - a->from : eqnn__arc_row(&a->order.g, map, at);
        const eqnn_real *from = a->v[slot] + (size_t)row * cols;
        for (size_t k = (size_t)lane * line; k < cols; k += 32 * line) eqnn__soon(from + k);
    }
}

/* M[item][entry] = sum of c y over the records. A lane takes an entry of several items, which share
   the reading of what to add. */
static __device__ inline void eqnn__couple_matrices(const eqnn__couple_args *a,
                                                    const eqnn__phase *phase, int n,
                                                    const eqnn__member *items, const eqnn_real *y,
                                                    eqnn_real *M)
{
    const int few = 8;
    int lane = (int)threadIdx.x % 32, warps = (int)blockDim.x / 32, groups = (n + few - 1) / few;
    const eqnn__entry *entry = a->role.entry + phase->entry;
    for (int k = (int)threadIdx.x / 32; k < (phase->entries + 31) / 32 * groups; k += warps) {
        int i = k / groups * 32 + lane, first = k % groups * few;
        const eqnn_real *row[few];
        eqnn_real sum[few];
        if (i >= phase->entries) continue;
        const eqnn__entry e = entry[i];
#pragma unroll
        for (int q = 0; q < few; q++) {
            row[q] = y ? y + items[first + q < n ? first + q : n - 1].y : NULL;
            sum[q] = 0;
        }
        for (int r = e.first; r < e.first + e.count && y; r++) {
            const eqnn__summand s = a->role.record[r];
#pragma unroll
            for (int q = 0; q < few; q++) sum[q] += s.c * __ldg(row[q] + s.at);
        }
#pragma unroll
        for (int q = 0; q < few; q++)
            if (first + q < n) M[(first + q) * a->role.size + e.to] = sum[q];
    }
}

/* N numbers from shared memory, aligned to 16 bytes when there are several. */
template <int N> __device__ __forceinline__ void eqnn__row(const eqnn_real *m, eqnn_real (&row)[N])
{
    if constexpr (N == 1) {
        row[0] = m[0];
    } else {
#pragma unroll
        for (int q = 0; q < N; q += EQNN__PACK) {
            eqnn__pack v = *(const eqnn__pack *)(const void *)(m + q);
#pragma unroll
            for (int n = 0; n < EQNN__PACK; n++)
                if (q + n < N) row[q + n < N ? q + n : 0] = v.v[n];
        }
    }
}

/* Row i of M of a piece. */
template <int D3>
__device__ __forceinline__ void eqnn__part_entries(const eqnn_real *m, int i, eqnn_real (&row)[D3])
{
    eqnn__row<D3>(m + i * (D3 == 1 ? 1 : D3 == 3 ? 4 : 8), row);
}

/* Row `at` of an operand. Values are there when they are read; with tangents some are not, NULL.
   The compiler may not take the address apart again: then a number of the row is one instruction
   away and not four. */
template <int T>
__device__ __forceinline__ const eqnn_real *eqnn__operand(const eqnn_real *p, size_t at)
{
    const eqnn_real *row = !T || p ? p + at : NULL;
#ifdef __CUDA_ARCH__
    asm("" : "+l"(row));
#endif
    return row;
}

/* The lane's channels of a row, or zeros where with tangents there is no row. */
template <int T, int C>
__device__ __forceinline__ void eqnn__channels(const eqnn_real *row, int at, eqnn_real (&x)[C])
{
#pragma unroll
    for (int c = 0; T && c < C; c++) x[c] = 0;
    if (!T || row) eqnn__channels_in<C>(row + at, x);
}

/* From a component's row to the next one's. Reckoned from the first, rows are the same distances
   apart for every item, which the compiler keeps: then registers run out and loads wait for each
   other. */
template <int T> __device__ __forceinline__ void eqnn__next(const eqnn_real *&row, int by)
{
    if (!T || row) row += by;
}

/* What a lane needs of a piece: where its C channels begin in the rows of x, g and w; how far apart
   components are, where its M stands, whether it has weights. Copies: what a kernel writes might
   lie in the plan for all the compiler knows, which would read that again for each item. */
typedef struct eqnn__lane { int x, g, w, xs, gs, m, weighted; } eqnn__lane;

/* Channels u.. of a piece. */
static __device__ __forceinline__ eqnn__lane eqnn__lane_at(const eqnn__part *p, int u)
{
    eqnn__lane l = {p->x + u, p->g + u, p->w + u * p->ws, p->xs, p->gs, p->m, p->w >= 0};
    return l;
}

/* Weights of an item: 1 and no tangent where the path has none. */
template <int T, int C>
__device__ __forceinline__ void eqnn__lane_weights(const eqnn__couple_args *a, const eqnn__lane *l,
                                                   const eqnn__member *t, eqnn_real (&w)[C],
                                                   eqnn_real (&w1)[C])
{
    int weights = a->weights && l->weighted;
#pragma unroll
    for (int c = 0; c < C; c++) w[c] = 1, w1[c] = 0;
    if (weights) eqnn__channels<T, C>(eqnn__operand<T>(a->v[2], t->w), l->w, w);
    if (weights && T) eqnn__channels<T, C>(eqnn__operand<T>(a->t[2], t->w), l->w, w1);
}

/* dg[k] += w sum_i M[i][k] x[i] of one item; with tangents w M x1 + w1 M x + w M1 x */
template <int T, int C, int D1, int D3, int DIAGONAL>
__device__ __forceinline__ void eqnn__couple_dg(const eqnn__couple_args *a, const eqnn__lane *l,
                                                const eqnn__member *t, const eqnn_real *m,
                                                const eqnn_real *m1, eqnn_real (&sum)[D3][C])
{
    eqnn_real w[C], w1[C], row[D3], row1[D3];
    const eqnn_real *px = eqnn__operand<T>(a->v[0], t->x + (size_t)l->x);
    const eqnn_real *px1 = T ? eqnn__operand<T>(a->t[0], t->x + (size_t)l->x) : NULL;
    eqnn__lane_weights<T, C>(a, l, t, w, w1);
    if (DIAGONAL) eqnn__row<D3>(m, row);
    if (DIAGONAL && T) eqnn__row<D3>(m1, row1);
#pragma unroll
    for (int i = 0; i < D1; i++) {
        eqnn_real x[C], x1[C];
        eqnn__channels<T, C>(px, 0, x);
        if (T) eqnn__channels<T, C>(px1, 0, x1);
        eqnn__next<T>(px, l->xs);
        if (T) eqnn__next<T>(px1, l->xs);
        if (!DIAGONAL) eqnn__part_entries<D3>(m, i, row);
        if (!DIAGONAL && T) eqnn__part_entries<D3>(m1, i, row1);
#pragma unroll
        for (int c = 0; c < C; c++) {
            eqnn_real b = w[c] * x[c], b1 = T ? w[c] * x1[c] + w1[c] * x[c] : b;
#pragma unroll
            for (int k = DIAGONAL ? i : 0; k < (DIAGONAL ? i + 1 : D3); k++) {
                sum[k][c] += row[k] * b1;
                if (T) sum[k][c] += row1[k] * b;
            }
        }
    }
}

/* dx[i] += w sum_k M[i][k] g[k] of one item, and dw = sum_i x[i] sum_k M[i][k] g[k]; with tangents
   of all, and in dw0 what dw is without. */
template <int T, int C, int D1, int D3, int DIAGONAL, int X>
__device__ __forceinline__ void eqnn__couple_dx(const eqnn__couple_args *a, const eqnn__lane *l,
                                                const eqnn__member *t, const eqnn_real *m,
                                                const eqnn_real *m1, int with_dw,
                                                eqnn_real (&sum)[X ? D1 : 1][C],
                                                eqnn_real (&dw)[C], eqnn_real (&dw0)[C])
{
    eqnn_real w[C], w1[C], row[D3], row1[D3], g[D3][C], g1[D3][C];
    const size_t at = t->x + (size_t)l->x, to = t->g + (size_t)l->g;
    const eqnn_real *px = eqnn__operand<T>(a->v[0], at), *pg = eqnn__operand<T>(a->v[4], to);
    const eqnn_real *px1 = T ? eqnn__operand<T>(a->t[0], at) : NULL;
    const eqnn_real *pg1 = T ? eqnn__operand<T>(a->t[4], to) : NULL;
    if (X) eqnn__lane_weights<T, C>(a, l, t, w, w1);
    if (DIAGONAL) eqnn__row<D3>(m, row);
    if (DIAGONAL && T) eqnn__row<D3>(m1, row1);
#pragma unroll
    for (int k = 0; k < D3; k++) {
        eqnn__channels<T, C>(pg, 0, g[k]);
        if (T) eqnn__channels<T, C>(pg1, 0, g1[k]);
        eqnn__next<T>(pg, l->gs);
        if (T) eqnn__next<T>(pg1, l->gs);
    }
#pragma unroll
    for (int i = 0; i < D1; i++) {
        eqnn_real x[C], x1[C];
#pragma unroll
        for (int c = 0; c < C; c++) x[c] = x1[c] = 0;
        if (with_dw) eqnn__channels<T, C>(px, 0, x);
        if (with_dw && T) eqnn__channels<T, C>(px1, 0, x1);
        eqnn__next<T>(px, l->xs);
        if (T) eqnn__next<T>(px1, l->xs);
        if (!DIAGONAL) eqnn__part_entries<D3>(m, i, row);
        if (!DIAGONAL && T) eqnn__part_entries<D3>(m1, i, row1);
#pragma unroll
        for (int c = 0; c < C; c++) {
            eqnn_real r = 0, r1 = 0;
#pragma unroll
            for (int k = DIAGONAL ? i : 0; k < (DIAGONAL ? i + 1 : D3); k++) {
                r += row[k] * g[k][c];
                if (T) r1 += row[k] * g1[k][c] + row1[k] * g[k][c];
            }
            if (X) sum[X ? i : 0][c] += T ? w[c] * r1 + w1[c] * r : w[c] * r;
            if (with_dw) dw[c] += T ? x1[c] * r + x[c] * r1 : x[c] * r;
            if (with_dw && T) dw0[c] += x[c] * r;
        }
    }
}

/* The sums of a task in registers: D components (role W with tangents: dw and dw0). */
template <int ROLE, int T, int C, int D1, int D3, int DIAGONAL, int D>
__device__ __forceinline__ void eqnn__couple_item(const eqnn__couple_args *a,
                                                  const eqnn__lane *l, const eqnn__member *t,
                                                  const eqnn_real *m, const eqnn_real *m1,
                                                  int live, eqnn_real (&sum)[D][C])
{
    if constexpr (ROLE == EQNN__ROLE_G) {
        eqnn__couple_dg<T, C, D1, D3, DIAGONAL>(a, l, t, m, m1, sum);
    } else if constexpr (ROLE == EQNN__ROLE_W) {
        eqnn_real none[1][C];
        eqnn__couple_dx<T, C, D1, D3, DIAGONAL, 0>(a, l, t, m, m1, 1, none, sum[0], sum[D - 1]);
    } else {
        eqnn_real dw[C], dw0[C];
        int with_dw = a->dw && l->weighted;
        size_t at = t->dw + (size_t)l->w;
#pragma unroll
        for (int c = 0; c < C; c++) dw[c] = dw0[c] = 0;
        eqnn__couple_dx<T, C, D1, D3, DIAGONAL, 1>(a, l, t, m, m1, with_dw, sum, dw, dw0);
        if (with_dw && live) eqnn__channels_out<C>(dw, a->dw + at);
        if (T && a->dw0 && with_dw && live) eqnn__channels_out<C>(dw0, a->dw0 + at);
    }
}

/* What a warp does on a task: `wide` lanes on the channels of an item, C each, and on 32/wide items
   at a time. */
typedef struct eqnn__warp {
    int wide, step, sub, live, channel; /* sub: which of the items; channel: the lane's first     */
    eqnn__bundle bundle;
    const eqnn__member *items;
    const eqnn_real *M;
    size_t tangents;                    /* M1 stands so far behind M                              */
} eqnn__warp;

/* Lanes for so many channels, C each, as few as do, a power of 2. */
template <int C> __device__ __forceinline__ int eqnn__lanes_for(int channels)
{
    int wide = 32;
    while (wide / 2 * C >= channels) wide /= 2;
    return wide;
}

template <int ROLE, int C>
__device__ __forceinline__ eqnn__warp eqnn__warp_at(const eqnn__couple_args *a,
                                                    const eqnn__task *task,
                                                    const eqnn__member *items, const eqnn_real *M)
{
    const int most = eqnn__task_channels(ROLE, C > 1);
    eqnn__warp b;
    int lane = (int)threadIdx.x % 32;
    b.bundle = a->role.bundle[task->bundle];
    b.wide = eqnn__lanes_for<C>(b.bundle.channels < most ? b.bundle.channels : most);
    b.step = 32 / b.wide;
    b.sub = lane / b.wide;
    b.channel = task->first + lane % b.wide * C;
    b.live = b.channel < b.bundle.channels;
    if (!b.live) b.channel = b.bundle.channels - C; /* goes along with the last */
    b.items = items;
    b.M = M;
    b.tangents = (size_t)a->edges * (size_t)a->role.size;
    return b;
}

/* Writes or adds the sums of an owner whose first item here is q. */
template <int ROLE, int T, int C, int D>
__device__ __forceinline__ void eqnn__couple_store(const eqnn__couple_args *a, const eqnn__warp *b,
                                                   const eqnn__lane *l, int q,
                                                   eqnn_real (&sum)[D][C])
{
    const eqnn__member *t = b->items + q;
    const int two = ROLE == EQNN__ROLE_W && T; /* sums: dw and dw0 */
    int add = b->bundle.add || !t->begin;
    int at = ROLE == EQNN__ROLE_G ? l->g : ROLE == EQNN__ROLE_X ? l->x : l->w;
    int far = ROLE == EQNN__ROLE_G ? l->gs : ROLE == EQNN__ROLE_X ? l->xs : 0;
    if (!a->each)
        for (int by = b->wide; by < 32; by *= 2)
#pragma unroll
            for (int k = 0; k < D; k++)
#pragma unroll
                for (int c = 0; c < C; c++) sum[k][c] += __shfl_xor_sync(EQNN__ALL, sum[k][c], by);
    if (!b->live || (!a->each && b->sub)) return;
#pragma unroll
    for (int k = 0; k < D; k++) {
        eqnn_real *out = two && k ? a->out0 : a->out;
        if (add && (!two || out))
            eqnn__channels_add<C>(out + t->out + (size_t)(at + k * far), sum[k]);
    }
#pragma unroll
    for (int k = 0; k < D; k++) {
        eqnn_real *out = two && k ? a->out0 : a->out;
        if (!two || out) eqnn__channels_out<C>(sum[k], out + t->out + (size_t)(at + k * far));
    }
}

/* A piece of a bundle, of the items s..e-1: sums begin with the first piece and are stored with the
   last. */
template <int ROLE, int T, int C, int D1, int D3, int DIAGONAL, int D>
__device__ __forceinline__ void eqnn__couple_part(const eqnn__couple_args *a,
                                                  const eqnn__warp *b, const eqnn__lane *l,
                                                  int s, int e, int first, int last,
                                                  eqnn_real (&sum)[D][C])
{
    int skip = a->weighted && !l->weighted, next;
    for (int q = a->each ? s + b->sub : s; q < e; q = next) {
        int end = a->each ? q + 1 : b->items[q].end;
        next = a->each ? q + b->step : end;
#pragma unroll
        for (int k = 0; k < D; k++)
#pragma unroll
            for (int c = 0; c < C; c++)
                if (first) sum[k][c] = 0;
        for (int j = a->each ? q : q + b->sub; j < end && !skip; j += b->step) {
            const eqnn_real *m = b->M + j * a->role.size + l->m;
            if (ROLE != EQNN__ROLE_W || b->items[j].item >= 0) /* weights: a pair may be one edge */
                eqnn__couple_item<ROLE, T, C, D1, D3, DIAGONAL, D>(
                    a, l, b->items + j, m, m + b->tangents, b->live, sum);
        }
        if (last) eqnn__couple_store<ROLE, T, C, D>(a, b, l, q, sum);
    }
}

/* f(the sizes of a piece): in each of the calls the compiler knows them. */
template <int D1, int D3, int DIAGONAL> struct eqnn__sizes {
    static constexpr int d1 = D1, d3 = D3, diagonal = DIAGONAL;
};

template <class F>
__device__ __forceinline__ void eqnn__sizes_of(const eqnn__part *p, const F &f)
{
    switch (8 * p->d3 + (p->diagonal ? 0 : p->d1)) {
    case 8: case 9: f(eqnn__sizes<1, 1, 0>()); break;
    case 11: f(eqnn__sizes<3, 1, 0>()); break;
    case 13: f(eqnn__sizes<5, 1, 0>()); break;
    case 15: f(eqnn__sizes<7, 1, 0>()); break;
    case 24: f(eqnn__sizes<3, 3, 1>()); break;
    case 25: f(eqnn__sizes<1, 3, 0>()); break;
    case 27: f(eqnn__sizes<3, 3, 0>()); break;
    case 29: f(eqnn__sizes<5, 3, 0>()); break;
    case 31: f(eqnn__sizes<7, 3, 0>()); break;
    case 40: f(eqnn__sizes<5, 5, 1>()); break;
    case 41: f(eqnn__sizes<1, 5, 0>()); break;
    case 43: f(eqnn__sizes<3, 5, 0>()); break;
    case 45: f(eqnn__sizes<5, 5, 0>()); break;
    case 47: f(eqnn__sizes<7, 5, 0>()); break;
    case 56: f(eqnn__sizes<7, 7, 1>()); break;
    case 57: f(eqnn__sizes<1, 7, 0>()); break;
    case 59: f(eqnn__sizes<3, 7, 0>()); break;
    case 61: f(eqnn__sizes<5, 7, 0>()); break;
    default: f(eqnn__sizes<7, 7, 0>()); break;
    }
}

/* The loop for the sizes of a piece: those of the sums are known, D in roles G and X. */
template <int ROLE, int T, int C, int D>
__device__ __forceinline__ void eqnn__couple_sized(const eqnn__couple_args *a,
                                                   const eqnn__warp *b, const eqnn__part *p,
                                                   int s, int e, int first, int last,
                                                   eqnn_real (&sum)[D][C])
{
#define EQNN__SIZED(d1, d3, diagonal)                                                              \
    eqnn__couple_part<ROLE, T, C, d1, d3, diagonal, D>(a, b, &l, s, e, first, last, sum)
    const eqnn__lane l = eqnn__lane_at(p, b->channel);
    const int G = ROLE == EQNN__ROLE_G;
    if constexpr (ROLE == EQNN__ROLE_W) {
        eqnn__sizes_of(p, [&](auto n) { EQNN__SIZED(n.d1, n.d3, n.diagonal); });
    } else {
        switch (p->diagonal ? 0 : G ? p->d1 : p->d3) {
        case 0: EQNN__SIZED(D, D, 1); break;
        case 1: EQNN__SIZED(G ? 1 : D, G ? D : 1, 0); break;
        case 3: EQNN__SIZED(G ? 3 : D, G ? D : 3, 0); break;
        case 5: EQNN__SIZED(G ? 5 : D, G ? D : 5, 0); break;
        default: EQNN__SIZED(G ? 7 : D, G ? D : 7, 0); break;
        }
    }
#undef EQNN__SIZED
}

/* A task: all pieces of a bundle, of the items s..n-1. A single piece goes through all items at
   once. */
template <int ROLE, int T, int C, int D>
__device__ __forceinline__ void eqnn__couple_bundle(const eqnn__couple_args *a,
                                                    const eqnn__warp *b, int s, int n)
{
    eqnn_real sum[D][C];
    int parts = b->bundle.parts;
    for (int e; s < n; s = e) {
        e = n;
        if (parts > 1) e = a->each ? s + b->step : b->items[s].end;
        e = e < n ? e : n;
        for (int p = 0; p < parts; p++)
            eqnn__couple_sized<ROLE, T, C, D>(a, b, a->role.part + b->bundle.part + p, s, e, p == 0,
                                              p == parts - 1, sum);
    }
}

template <int ROLE, int T, int C>
__device__ __forceinline__ void eqnn__couple_task(const eqnn__couple_args *a,
                                                  const eqnn__task *task, int s, int n,
                                                  const eqnn__member *items, const eqnn_real *M)
{
    const eqnn__warp b = eqnn__warp_at<ROLE, C>(a, task, items, M);
    const eqnn__part *p = a->role.part + b.bundle.part;
    if constexpr (ROLE == EQNN__ROLE_W) {
        eqnn__couple_bundle<ROLE, T, C, T ? 2 : 1>(a, &b, s, n);
        return;
    }
    switch (ROLE == EQNN__ROLE_G ? p->d3 : p->d1) {
    case 1: eqnn__couple_bundle<ROLE, T, C, 1>(a, &b, s, n); break;
    case 3: eqnn__couple_bundle<ROLE, T, C, 3>(a, &b, s, n); break;
    case 5: eqnn__couple_bundle<ROLE, T, C, 5>(a, &b, s, n); break;
    default: eqnn__couple_bundle<ROLE, T, C, 7>(a, &b, s, n); break;
    }
}

/* 16 bytes of channels a lane, which share the reading of M; one channel where rows do not lie so,
   and with tangents, which would need too many registers. */
template <int ROLE, int T>
__device__ __forceinline__ void eqnn__couple_lanes(const eqnn__couple_args *a,
                                                   const eqnn__task *task, int s, int n,
                                                   const eqnn__member *items, const eqnn_real *M)
{
    const eqnn__bundle bundle = a->role.bundle[task->bundle];
    eqnn__task some = *task;
    int end = some.first + eqnn__task_channels(ROLE, bundle.packs);
    if constexpr (!T) {
        if (bundle.packs && a->packs) {
            eqnn__couple_task<ROLE, T, EQNN__PACK>(a, task, s, n, items, M);
            return;
        }
    }
    for (; some.first < end && some.first < bundle.channels; some.first += 32)
        eqnn__couple_task<ROLE, T, 1>(a, &some, s, n, items, M);
}

/* The positions of a block: whole owners. */
static __device__ inline void eqnn__couple_range(const eqnn__couple_args *a, int *from, int *to)
{
    int64_t p = a->from + (int64_t)blockIdx.x * a->span, q = p + a->span;
    *from = p < a->to ? (int)p : a->to;
    *to = q < a->to ? (int)q : a->to;
    if (a->each) return;
    *from = eqnn__order_border(&a->order, *from, a->from, a->to);
    *to = eqnn__order_border(&a->order, *to, a->from, a->to);
}

/* How many items from position p on are worked on together: as many as there is room for, but an
   owner that begins among them and does not end is left to the next. */
static __device__ inline int eqnn__couple_count(const eqnn__couple_args *a, int p, int to)
{
    if (to - p <= a->edges) return to - p;
    if (a->each) return a->edges;
    int whole = eqnn__order_first(&a->order, eqnn__order_owner(&a->order, p + a->edges)) - p;
    return whole > 0 ? whole : a->edges;
}

/* Rows that a role reads of the items from position p on, before they are looked at. */
static __device__ inline void eqnn__couple_ahead(const eqnn__couple_args *a, int role, int p,
                                                 int to)
{
    int n = to - p < a->edges ? to - p : a->edges;
    if (role != EQNN__ROLE_X || a->dw) eqnn__couple_soon(a, 0, p, n);
    if (role != EQNN__ROLE_W) eqnn__couple_soon(a, 2, p, n);
    if (role != EQNN__ROLE_G) eqnn__couple_soon(a, 4, p, n);
}

/* All tasks of a phase, in shares of the items where every item is an owner and tasks are few. */
template <int ROLE, int T>
__device__ __forceinline__ void eqnn__couple_tasks(const eqnn__couple_args *a,
                                                   const eqnn__phase *phase, int n,
                                                   const eqnn__member *items, const eqnn_real *M)
{
    int warps = (int)blockDim.x / 32, shares = 1;
    while (a->each && shares * phase->tasks < 4 * warps && shares < 8) shares *= 2;
    for (int k = (int)threadIdx.x / 32; k < phase->tasks * shares; k += warps) {
        const eqnn__task task = a->role.task[phase->task + k / shares];
        int s = k % shares;
        eqnn__couple_lanes<ROLE, T>(a, &task, n * s / shares, n * (s + 1) / shares, items, M);
    }
}

/* -- role Y: T[i][k] = sum over pieces and channels of w x[i] g[k], one item after the other -- */

/* N sums over 32 lanes in about N shuffles: half of the numbers go to half of the lanes, again and
   again. In the end a lane has the sums index.. of which `left` are real. */
template <int N, int FAR>
__device__ __forceinline__ void eqnn__halve(eqnn_real *t, int *index, int *left)
{
    const int M = (N + 1) / 2;
    int upper = ((int)threadIdx.x & FAR) != 0;
#pragma unroll
    for (int n = 0; n < M; n++) {
        eqnn_real low = t[n], high = n + M < N ? t[n + M < N ? n + M : 0] : (eqnn_real)0;
        eqnn_real give = upper ? low : high;
        t[n] = (upper ? high : low) + __shfl_xor_sync(EQNN__ALL, give, FAR);
    }
    *index += upper ? M : 0;
    *left = upper ? *left - M : *left < M ? *left : M;
    if constexpr (FAR > 1) eqnn__halve<M, FAR / 2>(t, index, left);
}

/* The sums over the lanes of an item, `wide` of at most MOST, to their places in shared memory. */
template <int N, int MOST>
__device__ __forceinline__ void eqnn__couple_gather(eqnn_real (&t)[N], int wide, int store,
                                                    eqnn_real *to)
{
    const int most = (N + MOST - 1) / MOST;
    int index = 0, left = N;
    if constexpr (MOST > 1) {
        if (wide < MOST) {
            eqnn__couple_gather<N, MOST / 2>(t, wide, store, to);
            return;
        }
        eqnn__halve<N, MOST / 2>(t, &index, &left);
    }
#pragma unroll
    for (int n = 0; n < most; n++)
        if (n < left && store) to[index + n] = t[n];
}

/* Adds C channels of a piece, from u on; with tangents of x, g and w. */
template <int T, int C, int D1, int D3, int DIAGONAL>
__device__ __forceinline__ void eqnn__couple_products(const eqnn__couple_args *a,
                                                      const eqnn__part *p, const eqnn__member *e,
                                                      int u,
                                                      eqnn_real (&t)[DIAGONAL ? D3 : D1 * D3])
{
    const eqnn__lane l = eqnn__lane_at(p, u);
    eqnn_real w[C], w1[C], g[D3][C], g1[D3][C], x[C], x1[C];
    const eqnn_real *px = eqnn__operand<T>(a->v[0], e->x), *pg = eqnn__operand<T>(a->v[4], e->g);
    const eqnn_real *px1 = T ? eqnn__operand<T>(a->t[0], e->x) : NULL;
    const eqnn_real *pg1 = T ? eqnn__operand<T>(a->t[4], e->g) : NULL;
    eqnn__lane_weights<T, C>(a, &l, e, w, w1);
#pragma unroll
    for (int k = 0; k < D3; k++) {
        eqnn__channels<T, C>(pg, l.g + k * l.gs, g[k]);
        if (T) eqnn__channels<T, C>(pg1, l.g + k * l.gs, g1[k]);
    }
#pragma unroll
    for (int i = 0; i < D1; i++) {
        eqnn__channels<T, C>(px, l.x + i * l.xs, x);
        if (T) eqnn__channels<T, C>(px1, l.x + i * l.xs, x1);
#pragma unroll
        for (int c = 0; c < C; c++) {
            eqnn_real b = w[c] * x[c], b1 = T ? w[c] * x1[c] + w1[c] * x[c] : b;
#pragma unroll
            for (int k = DIAGONAL ? i : 0; k < (DIAGONAL ? i + 1 : D3); k++) {
                const int to = DIAGONAL ? i : i * D3 + k;
                t[to] += b1 * g[k][c];
                if (T) t[to] += b * g1[k][c];
            }
        }
    }
}

/* Lanes of an item: few, which go through its channels in turns. For then a warp adds up the sums
   of many items at once, and lanes still read 32 or 64 bytes that lie together. */
template <int C> static constexpr int eqnn__few_lanes = C > 1 ? 4 : 8;

template <int C> __device__ __forceinline__ int eqnn__dm_lanes(const eqnn__bundle *b)
{
    int wide = eqnn__lanes_for<C>(b->channels);
    return wide < eqnn__few_lanes<C> ? wide : eqnn__few_lanes<C>;
}

/* T of one M and of the items from the j-th on that a warp takes at a time. */
template <int T, int C, int D1, int D3, int DIAGONAL>
__device__ __forceinline__ void eqnn__couple_dm(const eqnn__couple_args *a,
                                                const eqnn__bundle *b, int j, int n,
                                                const eqnn__member *items, eqnn_real *M)
{
    const int N = DIAGONAL ? D3 : D1 * D3;
    eqnn_real t[N];
    int wide = eqnn__dm_lanes<C>(b), lane = (int)threadIdx.x % 32;
    j += lane / wide;
    int store = j < n;
    if (!store) j = n - 1;
    eqnn_real *to = M + (size_t)j * (size_t)a->role.size + (size_t)a->role.part[b->part].m;
#pragma unroll
    for (int k = 0; k < N; k++) t[k] = 0;
    for (int q = b->part; q < b->part + b->parts; q++) {
        const eqnn__part *p = a->role.part + q;
        if (a->weighted && p->w < 0) continue;
        for (int u = lane % wide * C; u < p->channels; u += wide * C)
            eqnn__couple_products<T, C, D1, D3, DIAGONAL>(a, p, items + j, u, t);
    }
    eqnn__couple_gather<N, eqnn__few_lanes<C>>(t, wide, store, to);
}

template <int T, int C>
__device__ __forceinline__ void eqnn__couple_dm_sized(const eqnn__couple_args *a,
                                                      const eqnn__bundle *b, int j, int n,
                                                      const eqnn__member *items, eqnn_real *M)
{
    eqnn__sizes_of(a->role.part + b->part, [&](auto size) {
        eqnn__couple_dm<T, C, size.d1, size.d3, size.diagonal>(a, b, j, n, items, M);
    });
}

/* dy of n items: the columns of y that a phase adds to. */
static __device__ inline void eqnn__couple_dy(const eqnn__couple_args *a, const eqnn__phase *phase,
                                              int n, const eqnn__member *items, const eqnn_real *M)
{
    for (int i = (int)threadIdx.x; i < n * phase->sums; i += (int)blockDim.x) {
        int j = i / phase->sums;
        eqnn__sum s = a->role.sum[phase->sum + i - j * phase->sums];
        eqnn_real *to = a->out + items[j].out + s.column, sum = s.add ? *to : (eqnn_real)0;
        const eqnn_real *m = M + (size_t)j * (size_t)a->role.size;
        for (int k = s.first; k < s.first + s.count; k++)
            sum += a->role.term[k].c * m[a->role.term[k].at];
        *to = sum;
    }
}

/* The T of all M of a phase. What a warp takes at a time, of one M, goes to the warps in turn. */
template <int T>
__device__ __forceinline__ void eqnn__couple_all_dm(const eqnn__couple_args *a,
                                                    const eqnn__phase *phase, int n,
                                                    const eqnn__member *items, eqnn_real *M)
{
    int warps = (int)blockDim.x / 32, at = (int)threadIdx.x / 32;
    for (int k = 0; k < phase->bundles; k++) {
        const eqnn__bundle b = a->role.bundle[phase->bundle + k];
        int packs = !T && b.packs && a->packs;
        int step = 32 / (packs ? eqnn__dm_lanes<EQNN__PACK>(&b) : eqnn__dm_lanes<1>(&b));
        for (; at * step < n; at += warps)
            if (packs) eqnn__couple_dm_sized<T, T ? 1 : EQNN__PACK>(a, &b, at * step, n, items, M);
            else eqnn__couple_dm_sized<T, 1>(a, &b, at * step, n, items, M);
        at -= (n + step - 1) / step;
    }
}

/* -- the kernel -- */

template <int ROLE, int T>
static __global__ void __launch_bounds__(32 * EQNN__FORM_WARPS, EQNN__FORM_BLOCKS(ROLE, T))
    eqnn__couple_kernel(const eqnn__couple_args a)
{
    EQNN_SHARED(eqnn__member, items);
    eqnn_real *M = (eqnn_real *)(void *)(items + a.edges);
    int from, to;
    eqnn__couple_range(&a, &from, &to);
    for (int p = from, n; p < to; p += n) {
        n = eqnn__couple_count(&a, p, to);
        if (p == from) eqnn__couple_ahead(&a, ROLE, p, to);
        eqnn__couple_ahead(&a, ROLE, p + n, to);
        eqnn__couple_items(&a, p, n, items);
        __syncthreads();
        for (int f = 0; f < a.role.phases; f++) {
            const eqnn__phase phase = a.role.phase[f];
            if constexpr (ROLE == EQNN__ROLE_Y) {
                eqnn__couple_all_dm<T>(&a, &phase, n, items, M);
                __syncthreads();
                eqnn__couple_dy(&a, &phase, n, items, M);
            } else {
                eqnn__couple_matrices(&a, &phase, n, items, a.v[1], M);
                if (T)
                    eqnn__couple_matrices(&a, &phase, n, items, a.t[1],
                                          M + (size_t)a.edges * (size_t)a.role.size);
                __syncthreads();
                eqnn__couple_tasks<ROLE, T>(&a, &phase, n, items, M);
            }
            __syncthreads();
        }
    }
}

/* -- the passes -- */

static void eqnn__couple_launch(eqnn__device *d, eqnn__couple_args *a, int role, int tangents)
{
    size_t bytes = (size_t)a->role.size * sizeof(eqnn_real), n = (size_t)(a->to - a->from);
    size_t edges, warps, grid;
    if (role != EQNN__ROLE_Y && tangents) bytes *= 2;
    bytes += sizeof(eqnn__member);
    edges = EQNN__FORM_SHARED / bytes;
    edges = edges < 1 ? 1 : edges < EQNN__FORM_EDGES ? edges : EQNN__FORM_EDGES;
    if (edges > 8) edges -= edges % 8; /* are what a warp takes at a time, of M and dy */
    a->edges = (int)edges;
    a->span = (int)((n + EQNN__FORM_GRID - 1) / EQNN__FORM_GRID);
    if (a->span > 2 * a->edges || (a->each && a->span > a->edges)) a->span = 2 * a->edges;
    warps = a->each || a->role.tasks > EQNN__FORM_WARPS ? EQNN__FORM_WARPS : (size_t)a->role.tasks;
    if (!n || !a->role.phases) return;
    grid = (n + (size_t)a->span - 1) / (size_t)a->span;
    bytes *= edges;
#define EQNN__CASE(role, T) \
    case 2 * role + T: \
        EQNN__RUN(d, (eqnn__couple_kernel<role, T>), grid, 32 * warps, bytes, *a); break;
    switch (2 * role + (tangents != 0)) {
    EQNN__CASE(EQNN__ROLE_G, 0)
    EQNN__CASE(EQNN__ROLE_G, 1)
    EQNN__CASE(EQNN__ROLE_X, 0)
    EQNN__CASE(EQNN__ROLE_X, 1)
    EQNN__CASE(EQNN__ROLE_W, 0)
    EQNN__CASE(EQNN__ROLE_W, 1)
    EQNN__CASE(EQNN__ROLE_Y, 0)
    EQNN__CASE(EQNN__ROLE_Y, 1)
    }
#undef EQNN__CASE
}

/* A pass over couple: what it was asked for, and its working memory. */
typedef struct eqnn__couple_pass {
    eqnn__device *d;
    const eqnn__form *f;
    const eqnn__couple_copy *plan;
    const eqnn_real *const *v, *const *t; /* t NULL: values                                    */
    eqnn_real *const *out;
    unsigned want, has;                   /* outputs; tangents that are there                  */
    size_t H, width, rows;                /* V: rows of h; numbers of a row of w; of a tile    */
    int whole;                            /* one tile is all there is: w has the rows of h     */
    int apart;                            /* so many items have a row of dx each; 0: owners do */
    int dw0;                              /* dw of the values is asked for as well             */
    eqnn_real *part[5];                   /* sums that are folded afterwards; else the output  */
    eqnn_real *w, *w1, *dw, *dw0_rows;    /* of a tile                                         */
    eqnn_real *h, *h1, *dh, *pairs, *pairs0, *dx;
} eqnn__couple_pass;

/* dx sums over the items of a source, dg over those of a target. In the order of sources, rows of g
   are gathered: one for each item, from the second cache. When these are far longer than rows of x,
   as where every path has a block of its own, it is better to go by targets, read a row of g once
   for all its items, and write dx item by item, for its owners to add up afterwards. So many items
   then have a row of dx at a time. */
static int eqnn__couple_apart(const eqnn__couple_pass *q)
{
    const eqnn__form *f = q->f;
    if (!(q->want & 1) || f->map[0] != EQNN__SOURCE || f->map[4] != EQNN__TARGET ||
        (size_t)f->cols[4] < EQNN__FORM_LONG * (size_t)f->cols[0])
        return 0;
    size_t rows = EQNN__FORM_APART / ((size_t)f->cols[0] * sizeof(eqnn_real));
    return rows < 1 ? 1 : rows < (size_t)f->items ? (int)rows : f->items;
}

/* Working memory that lasts over all tiles; returns its bytes. A row per item for dy and dh when
   their rows are others', chunks of what all rows share. */
static size_t eqnn__couple_parts(eqnn__couple_pass *q, void *base)
{
    const eqnn__form *f = q->f;
    size_t n = 0;
    for (int s = 0; s < 5; s++) {
        size_t cols = f->cols[s] > 0 ? (size_t)f->cols[s] : 0, part = eqnn__form_partials(f, s);
        int rows = s == 1 ? f->map[1] != EQNN__EACH : s != 2 && f->map[s] == EQNN__PAIR;
        if (s == 2 && q->H && f->map[2] != EQNN__EACH && f->map[2] != EQNN__ONE) rows = !q->whole;
        q->part[s] = q->out[s];
        if (!(q->want >> s & 1) || s == 3 || (s == 2 && q->H && f->map[2] == EQNN__ONE)) continue;
        if (rows) eqnn__carve(base, &n, (size_t)f->items * cols, &q->part[s]);
        else if (part && (s != 2 || !q->H)) eqnn__carve(base, &n, part, &q->part[s]);
    }
    return n;
}

/* Working memory of a tile; returns its bytes. */
static size_t eqnn__couple_tile_room(eqnn__couple_pass *q, void *base)
{
    const eqnn__form *f = q->f;
    size_t n = 0, rows = q->whole ? (size_t)f->rows[2] : q->rows, H = q->H, W = q->width;
    size_t items = q->rows; /* rows of dw: those of items, or chunks of what all share */
    int dw = (q->want & 12) != 0;
    if (q->apart) eqnn__carve(base, &n, (size_t)q->apart * (size_t)f->cols[0], &q->dx);
    if (!H) return n;
    if (q->whole && f->map[2] == EQNN__ONE)
        items = (size_t)eqnn__form_owners(f, 3, EQNN__ONE).owners;
    eqnn__carve(base, &n, rows * W, &q->w);
    if (q->has & 12) eqnn__carve(base, &n, rows * W, &q->w1);
    if (dw) eqnn__carve(base, &n, items * W, &q->dw);
    if (q->dw0) eqnn__carve(base, &n, items * W, &q->dw0_rows);
    if (q->whole && f->map[2] != EQNN__EACH) {
        if (dw) eqnn__carve(base, &n, rows * W, &q->pairs);
        if (q->dw0) eqnn__carve(base, &n, rows * W, &q->pairs0);
    } else if (!q->whole) {
        eqnn__carve(base, &n, rows * H, &q->h);
        if (q->has & 4) eqnn__carve(base, &n, rows * H, &q->h1);
        if (q->want & 4) eqnn__carve(base, &n, rows * H, &q->dh);
    }
    return n;
}

static int eqnn__couple_map(const eqnn__form *f, int slot)
{
    return f->map[slot] == EQNN__PAIR ? EQNN__EACH : f->map[slot];
}

/* Do all rows that lanes read and write channels of begin at borders of 16 bytes? */
static int eqnn__couple_packs(const eqnn__couple_args *a, int role)
{
    int good = role == EQNN__ROLE_Y || eqnn__packs(a->out, a->out_cols);
    for (int s = 0; s < 5; s += 2)
        good = good && eqnn__packs(a->v[s], a->cols[s]) && eqnn__packs(a->t[s], a->cols[s]);
    return good && eqnn__packs(a->out0, 0) && eqnn__packs(a->dw, 0) && eqnn__packs(a->dw0, 0);
}

/* A role over the positions from..to-1 of an order. */
static void eqnn__couple_role_run(eqnn__couple_pass *q, int role, const eqnn__owners *order,
                                  int from, int to, int each, eqnn_real *out)
{
    static const int slot[EQNN__ROLES] = { 4, 0, 2, 1 };
    const eqnn__form *f = q->f;
    eqnn__couple_args a;
    memset(&a, 0, sizeof a);
    a.order = *order;
    a.role = q->plan->role[role];
    a.from = from, a.to = to;
    a.each = each;
    a.tile = q->H && !q->whole;
    a.tile_out = role == EQNN__ROLE_X ? q->apart > 0 : a.tile && role == EQNN__ROLE_W;
    a.weighted = f->weighted, a.weights = f->cols[2] > 0;
    for (int s = 0; s < 5; s++) {
        a.map[s] = f->map[s];
        a.cols[s] = f->cols[s] > 0 ? (size_t)f->cols[s] : 0;
        a.v[s] = q->v[s];
        a.t[s] = q->has >> s & 1 ? q->t[s] : NULL;
    }
    a.cols[2] = q->width;
    a.out_cols = a.cols[slot[role]];
    if (q->H) a.v[2] = q->v[2] && q->v[3] ? q->w : NULL;
    if (q->H) a.t[2] = q->has & 12 ? q->w1 : NULL;
    a.out = out;
    if (role == EQNN__ROLE_W) a.out0 = q->dw0_rows;
    if (role == EQNN__ROLE_X && q->plan->role[EQNN__ROLE_W].alone) {
        if (q->H && f->map[2] != EQNN__ONE) a.dw = q->dw, a.dw0 = q->dw0_rows;
        else if (!q->H && f->map[2] == EQNN__EACH && (q->want & 4)) a.dw = q->out[2];
    }
    a.packs = eqnn__couple_packs(&a, role);
    eqnn__couple_launch(q->d, &a, role, q->t != NULL);
}

/* Zeros for owners without items: a warp looks at an owner. */
static __global__ void eqnn__idle_kernel(const eqnn__owners o, size_t cols, eqnn_real *out)
{
    EQNN__STRIDE(i, (size_t)o.owners * 32) {
        int owner = (int)(i / 32);
        if (eqnn__order_first(&o, owner) < eqnn__order_first(&o, owner + 1)) continue;
        for (size_t c = i % 32; c < cols; c += 32) out[(size_t)owner * cols + c] = 0;
    }
}

/* Zeros where no sum is written: columns without a path, owners without items. */
static void eqnn__couple_clear(eqnn__couple_pass *q, int role, int slot, size_t rows, size_t cols,
                               eqnn_real *out)
{
    int map = slot < 0 ? EQNN__EACH : q->f->map[slot];
    if (q->plan->role[role].covered != (int)cols) {
        eqnn__cuda_fill(q->d, rows * cols, 0, out);
    } else if (map == EQNN__TARGET || map == EQNN__SOURCE) {
        eqnn__owners o = eqnn__form_owners(q->f, slot, map);
        EQNN__RUN(q->d, eqnn__idle_kernel, eqnn__grid_of((size_t)o.owners * 32), EQNN__BLOCK, 0, o,
                  cols, out);
    }
}

/* The same for gradients of weights that are made here. */
static void eqnn__couple_clear_dw(eqnn__couple_pass *q, size_t rows)
{
    eqnn__couple_clear(q, EQNN__ROLE_W, -1, rows, q->width, q->dw);
    if (q->dw0) eqnn__couple_clear(q, EQNN__ROLE_W, -1, rows, q->width, q->dw0_rows);
}

static size_t eqnn__couple_rows_of(const eqnn__couple_pass *q, int slot)
{
    const eqnn__form *f = q->f;
    if (q->part[slot] == q->out[slot]) return (size_t)f->rows[slot];
    if (slot == 1 || f->map[slot] == EQNN__PAIR) return (size_t)f->items;
    return (size_t)eqnn__form_owners(f, slot, EQNN__ONE).owners;
}

/* Rows of a slot by the items at the positions from.. of an order, and back. */
static __global__ void eqnn__take_kernel(const eqnn__owners o, int map, int from, int n,
                                         size_t cols, const eqnn_real *x, eqnn_real *out)
{
    EQNN__STRIDE(i, (size_t)n * cols) {
        int item = eqnn__order_item(&o, from + (int)(i / cols));
        out[i] = x[(size_t)eqnn__arc_row(&o.g, map, item) * cols + i % cols];
    }
}

static __global__ void eqnn__give_kernel(const eqnn__owners o, int from, int n, size_t cols,
                                         const eqnn_real *x, eqnn_real *out)
{
    EQNN__STRIDE(i, (size_t)n * cols)
        out[(size_t)eqnn__order_item(&o, from + (int)(i / cols)) * cols + i % cols] = x[i];
}

/* The rows of h (or its tangent) of a tile: where they are, or gathered into `to`. */
static const eqnn_real *eqnn__couple_take(eqnn__couple_pass *q, const eqnn__owners *o, int from,
                                          int n, const eqnn_real *h, eqnn_real *to)
{
    if (!h || q->whole) return h;
    if (o->map != EQNN__SOURCE && q->f->map[2] == EQNN__EACH) return h + (size_t)from * q->H;
    EQNN__RUN(q->d, eqnn__take_kernel, eqnn__grid_of((size_t)n * q->H), EQNN__BLOCK, 0, *o,
              q->f->map[2], from, n, q->H, h, to);
    return to;
}

static void eqnn__couple_product(eqnn__couple_pass *q, int ta, int tb, size_t m, size_t n, size_t k,
                                 const eqnn_real *A, size_t lda, const eqnn_real *B, size_t ldb,
                                 int add, eqnn_real *C, size_t ldc)
{
    eqnn__cuda_gemm(q->d, ta, tb, m, n, k, 1, A, lda, 0, B, ldb, 0, add, C, ldc, 0, 1);
}

/* w = h V of a tile and its tangent h1 V + h V1 */
static void eqnn__couple_weights_of(eqnn__couple_pass *q, size_t rows, const eqnn_real *h,
                                    const eqnn_real *h1)
{
    const eqnn_real *V = q->v[3], *V1 = q->has & 8 ? q->t[3] : NULL;
    size_t H = q->H, W = q->width;
    if (h && V) eqnn__couple_product(q, 0, 0, rows, W, H, h, H, V, W, 0, q->w, W);
    if (!(q->has & 12)) return;
    if (h1 && V) eqnn__couple_product(q, 0, 0, rows, W, H, h1, H, V, W, 0, q->w1, W);
    if (h && V1) eqnn__couple_product(q, 0, 0, rows, W, H, h, H, V1, W, h1 && V, q->w1, W);
    if (!(h1 && V) && !(h && V1)) eqnn__cuda_fill(q->d, rows * W, 0, q->w1);
}

/* dh = dw V' + dw0 V1' and dV (added to what earlier tiles gave) = h' dw + h1' dw0 */
static void eqnn__couple_last_layer(eqnn__couple_pass *q, size_t rows, const eqnn_real *h,
                                    const eqnn_real *h1, const eqnn_real *dw, const eqnn_real *dw0,
                                    eqnn_real *dh, int later)
{
    const eqnn_real *V = q->v[3], *V1 = q->has & 8 ? q->t[3] : NULL;
    size_t H = q->H, W = q->width;
    eqnn_real *dV = q->out[3];
    if (q->want & 4) {
        if (V) eqnn__couple_product(q, 0, 1, rows, H, W, dw, W, V, W, 0, dh, H);
        if (V1) eqnn__couple_product(q, 0, 1, rows, H, W, dw0, W, V1, W, V != NULL, dh, H);
        if (!V && !V1) eqnn__cuda_fill(q->d, rows * H, 0, dh);
    }
    if (!(q->want & 8)) return;
    if (h) eqnn__couple_product(q, 1, 0, H, W, rows, h, H, dw, W, later, dV, W);
    if (h1) eqnn__couple_product(q, 1, 0, H, W, rows, h1, H, dw0, W, later || h, dV, W);
    if (!h && !h1 && !later) eqnn__cuda_fill(q->d, H * W, 0, dV);
}

/* Gradients of weights that a tile, or all items, gave to h and V. */
static void eqnn__couple_tile_back(eqnn__couple_pass *q, const eqnn__owners *o, int from, int n,
                                   const eqnn_real *h, const eqnn_real *h1)
{
    const eqnn__form *f = q->f;
    int direct = o->map != EQNN__SOURCE && f->map[2] == EQNN__EACH;
    eqnn_real *dh = q->out[2] ? direct ? q->out[2] + (size_t)from * q->H : q->dh : NULL;
    eqnn_real *to = f->map[2] == EQNN__EACH ? q->out[2] : q->part[2];
    eqnn__couple_last_layer(q, (size_t)n, h, h1, q->dw, q->dw0_rows, dh, from > 0);
    if ((q->want & 4) && !direct)
        EQNN__RUN(q->d, eqnn__give_kernel, eqnn__grid_of((size_t)n * q->H), EQNN__BLOCK, 0, *o,
                  from, n, q->H, q->dh, to);
}

static void eqnn__couple_whole_back(eqnn__couple_pass *q)
{
    const eqnn__form *f = q->f;
    size_t rows = (size_t)f->rows[2], W = q->width;
    const eqnn_real *h1 = q->has & 4 ? q->t[2] : NULL;
    eqnn_real *from[2] = { q->dw, q->dw0_rows }, *to[2] = { q->dw, q->dw0_rows };
    for (int i = 0; i < 2 && f->map[2] != EQNN__EACH; i++) {
        eqnn__owners o = eqnn__form_owners(f, 3, f->map[2]);
        to[i] = i ? q->pairs0 : q->pairs;
        if (from[i]) eqnn__form_rows(q->d, &o, o.owners, W, from[i], to[i]);
    }
    eqnn__couple_last_layer(q, rows, q->v[2], h1, to[0], to[1], q->out[2], 0);
}

/* Role X over a tile. Rows of dx that items have for themselves are added up when there is no room
   for more of them, and at the end. */
static void eqnn__couple_role_x(eqnn__couple_pass *q, const eqnn__owners *o, int from, int to)
{
    size_t cols = (size_t)q->f->cols[0];
    int at = q->apart ? from % q->apart : 0;
    if (!q->apart) {
        eqnn__couple_role_run(q, EQNN__ROLE_X, o, from, to, o->map == EQNN__EACH, q->part[0]);
        return;
    }
    if (at == 0) eqnn__couple_clear(q, EQNN__ROLE_X, -1, (size_t)q->apart, cols, q->dx);
    eqnn__couple_role_run(q, EQNN__ROLE_X, o, from, to, 1, q->dx + (size_t)at * cols);
    if (to % q->apart && to < o->positions) return;
    eqnn__owners sources = eqnn__form_owners(q->f, 0, EQNN__SOURCE);
    eqnn__form_rows_of(q->d, &sources, from - at, to, cols, q->dx, q->part[0]);
}

/* The roles that an order serves, over a tile: X and what has a row per item; or G. */
static void eqnn__couple_tile_roles(eqnn__couple_pass *q, const eqnn__owners *o, int from, int to,
                                    unsigned want)
{
    const eqnn__form *f = q->f;
    int with = (q->want & 1) && q->plan->role[EQNN__ROLE_W].alone, each = o->map == EQNN__EACH;
    int one = q->H ? f->map[2] == EQNN__ONE : f->map[2] != EQNN__EACH;
    size_t n = (size_t)(q->whole ? f->items : to - from);
    if (want & 16) eqnn__couple_role_run(q, EQNN__ROLE_G, o, from, to, each, q->part[4]);
    if (!one && q->H && (want & 12) && (!q->whole || from == 0)) eqnn__couple_clear_dw(q, n);
    if (want & 1) eqnn__couple_role_x(q, o, from, to);
    if (!one && !with && (want & (q->H ? 12 : 4)))
        eqnn__couple_role_run(q, EQNN__ROLE_W, o, from, to, 1, q->H ? q->dw : q->out[2]);
    if (want & 2) eqnn__couple_role_run(q, EQNN__ROLE_Y, o, from, to, 1, q->part[1]);
}

/* All positions of an order, tile by tile. */
static void eqnn__couple_tiles(eqnn__couple_pass *q, const eqnn__owners *o, unsigned want)
{
    int n = o->positions, step = q->H && !q->whole ? (int)q->rows : n;
    const eqnn_real *h1 = q->has & 4 ? q->t[2] : NULL;
    for (int from = 0, to; from < n && want; from = to) {
        const eqnn_real *h = NULL, *t = NULL;
        to = n - from < step ? n : from + step;
        if (q->apart && to - from > q->apart - from % q->apart)
            to = from + q->apart - from % q->apart;
        if (q->H && !q->whole) {
            h = eqnn__couple_take(q, o, from, to - from, q->v[2], q->h);
            t = eqnn__couple_take(q, o, from, to - from, h1, q->h1);
            eqnn__couple_weights_of(q, (size_t)(to - from), h, t);
        }
        eqnn__couple_tile_roles(q, o, from, to, want);
        if (q->H && !q->whole && (want & 12)) eqnn__couple_tile_back(q, o, from, to - from, h, t);
    }
}

/* Rows that are summed afterwards. */
static void eqnn__couple_folds(eqnn__couple_pass *q)
{
    const eqnn__form *f = q->f;
    for (int s = 0; s < 5; s++) {
        if (!(q->want >> s & 1) || q->part[s] == q->out[s]) continue;
        eqnn__owners o = eqnn__form_owners(f, s, f->map[s]);
        eqnn__form_rows(q->d, &o, s == 1 ? f->items : o.owners, (size_t)f->cols[s], q->part[s],
                        q->out[s]);
    }
}

/* The passes in the orders of dg and of dx, in one where these are the same; then the sums of
   shared weights. dy goes along with dx, or, unless weights would have to be made for that, in the
   order of dg when the rows of g are the longer ones: an owner's is read for all its items. */
static void eqnn__couple_passes(eqnn__couple_pass *q)
{
    const eqnn__form *f = q->f;
    static const int role[5] = { EQNN__ROLE_X, EQNN__ROLE_Y, EQNN__ROLE_W, 0, EQNN__ROLE_G };
    int one = q->H ? f->map[2] == EQNN__ONE : f->map[2] != EQNN__EACH;
    eqnn__owners g = eqnn__form_owners(f, 4, eqnn__couple_map(f, 4));
    int map = q->apart ? EQNN__TARGET : q->want & 1 ? eqnn__couple_map(f, 0) : EQNN__EACH;
    eqnn__owners x = eqnn__form_owners(f, 0, map);
    unsigned first = q->want & 16, rest = q->want & 15;
    for (int s = 0; s < 5; s++) {
        if (!(q->want >> s & 1) || s == 3 || (s == 2 && q->H) || (s == 0 && q->apart)) continue;
        eqnn__couple_clear(q, role[s], s, eqnn__couple_rows_of(q, s), (size_t)f->cols[s],
                           q->part[s]);
    }
    if (q->H && q->whole)
        eqnn__couple_weights_of(q, (size_t)f->rows[2], q->v[2], q->has & 4 ? q->t[2] : NULL);
    if (one) rest &= q->H ? ~12u : ~4u;
    if (g.map == EQNN__TARGET && f->cols[4] > f->cols[0] && (!q->H || q->whole))
        first |= rest & 2, rest &= ~2u;
    if (g.map == x.map && g.map != EQNN__ONE) {
        eqnn__couple_tiles(q, &g, rest | first);
    } else {
        eqnn__couple_tiles(q, &g, first);
        eqnn__couple_tiles(q, &x, rest);
    }
    if (one && (q->want & (q->H ? 12 : 4))) {
        eqnn__owners o = eqnn__form_owners(f, q->H ? 3 : 2, f->map[2]);
        if (q->H) eqnn__couple_clear_dw(q, (size_t)o.owners);
        eqnn__couple_role_run(q, EQNN__ROLE_W, &o, 0, o.positions, 0, q->H ? q->dw : q->part[2]);
    }
    if (q->H && q->whole && (q->want & 12)) eqnn__couple_whole_back(q);
    eqnn__couple_folds(q);
}

static void eqnn__cuda_couple(eqnn__device *d, const eqnn__form *f, unsigned want,
                              const eqnn_real *const v[], const eqnn_real *const t[],
                              eqnn_real *const out[])
{
    eqnn__couple_pass q;
    memset(&q, 0, sizeof q);
    q.d = d, q.f = f, q.v = v, q.t = t, q.out = out;
    q.want = want;
    for (int s = 0; s < 5; s++)
        if (t && t[s] && f->cols[s] > 0) q.has |= 1u << s;
    q.plan = eqnn__gpu_plan(d, f->plan, eqnn__couple_make);
    if (!q.plan) return;
    q.H = f->cols[3] > 0 && f->cols[2] > 0 ? (size_t)f->cols[2] : 0;
    q.width = (size_t)(q.H ? f->cols[3] : f->cols[2] > 0 ? f->cols[2] : 0);
    q.dw0 = q.H && ((q.want & 4 && q.has & 8) || (q.want & 8 && q.has & 4));
    if (q.H) {
        size_t matrices = 1 + (q.has & 12 ? 1 : 0) + (q.want & 12 ? 1 : 0) + (q.dw0 ? 1 : 0);
        q.rows = eqnn__form_tile_rows(matrices * q.width, f->items);
        q.whole = f->map[2] == EQNN__ONE || q.rows >= (size_t)f->items;
    }
    q.apart = eqnn__couple_apart(&q);
    void *p = eqnn__scratch(d, EQNN__SCRATCH_PART, eqnn__couple_parts(&q, NULL) + 1);
    void *w = eqnn__scratch(d, EQNN__SCRATCH_FORM, eqnn__couple_tile_room(&q, NULL) + 1);
    if (!p || !w) return;
    eqnn__couple_parts(&q, p);
    eqnn__couple_tile_room(&q, w);
    eqnn__couple_passes(&q);
}

static void eqnn__cuda_form(eqnn__device *d, const eqnn__form *f, const eqnn_real *const v[],
                            const eqnn_real *const t[], eqnn_real *const out[])
{
    unsigned want = 0;
    if (eqnn__gpu_of(d)->failed) return;
    for (int s = 0; s < f->slots; s++) {
        if (!out[s] || f->cols[s] <= 0 || f->rows[s] <= 0) continue;
        if (f->items > 0) want |= 1u << s;
        else eqnn__form_clear(d, f, s, out[s]);
    }
    if (!want) return;
    switch (f->kind) {
    case EQNN__COUPLE: eqnn__cuda_couple(d, f, want, v, t, out); break;
    case EQNN__MIX: eqnn__cuda_mix(d, f, want, v, t, out); break;
    case EQNN__POLY: eqnn__cuda_poly(d, f, want, v, t, out); break;
    case EQNN__COPY: eqnn__cuda_copies(d, f, want, v, t, out); break;
    default: eqnn__cuda_radial(d, f, want, v, t, out); break;
    }
}

/* ----------------------------------------------------------------------------------------------
   5 >>neighbours   Who is near whom. Points lie in cells at least as wide as the radius (of a
                    periodic example: in slabs of its cell), and cells are hashed, so that memory
                    is linear however far apart the points are. How points stand within a bucket
                    depends on who came first; nothing else does: edges are counted, get their
                    places by sums, and are sorted by source and image. Whether a distance is below
                    the radius is decided by the processor's own function (eqnn.h, eqnn__near_by).
   ---------------------------------------------------------------------------------------------- */

#define EQNN__SHARES 8       /* threads that share the cells around a point      */
#define EQNN__SCAN 2048      /* numbers of a block of running sums               */
#define EQNN__SIDE 1048576.0 /* cells from the origin; those beyond are one cell */

typedef struct eqnn__crowd {
    size_t n, edges;
    int loops, bits, examples;
    int width;                    /* of a record: 1, or 5 when periodic                       */
    const eqnn_real *pos;         /* [n, 3]                                                   */
    const int *example;           /* [n] or NULL                                              */
    const eqnn__box *box;         /* [examples] or NULL                                       */
    double cell, r2;              /* the width of cells, the radius squared                   */
    unsigned long long *told;     /* first row that is not finite, or too far; edges          */
    unsigned long long *key;      /* [n] the cell                                             */
    int *home;                    /* [n, 3] lattice vectors that lead into the cell           */
    int *bucket, *list;           /* [n]; [n] points by bucket                                */
    int *count, *start;           /* [2^bits], [2^bits + 1]                                   */
    int *found;                   /* [n EQNN__SHARES + 1] edges, then those before            */
    int *record;                  /* [edges, width] source; image seen from the smaller point,
                                     whether the target is the larger; INT_MAX, 2: a loop     */
    int *reverse, *leads;         /* [edges]; is it its pair's first?                         */
    eqnn__lists to;
} eqnn__crowd;

/* ---- running sums ---- */

/* The sum of v over the threads before this one, and over all: after the step `by` a thread has the
   sum of the 2 by numbers up to its own (Hillis and Steele 1986, doi:10.1145/7902.7903). */
static __device__ __forceinline__ unsigned long long eqnn__block_scan(unsigned long long v,
                                                                      unsigned long long *all)
{
    EQNN_SHARED(unsigned long long, sum);
    unsigned t = threadIdx.x;
    sum[t] = v;
    __syncthreads();
    for (unsigned by = 1; by < EQNN__BLOCK; by *= 2) {
        unsigned long long w = t >= by ? sum[t - by] : 0;
        __syncthreads();
        sum[t] += w;
        __syncthreads();
    }
    unsigned long long before = sum[t] - v;
    *all = sum[EQNN__BLOCK - 1];
    __syncthreads();
    return before;
}

/* Where this thread's numbers begin. */
static __device__ __forceinline__ size_t eqnn__scan_at(void)
{
    return (size_t)blockIdx.x * EQNN__SCAN + (size_t)threadIdx.x * (EQNN__SCAN / EQNN__BLOCK);
}

static __global__ void eqnn__scan_sums_kernel(size_t n, const int *x, unsigned long long *part)
{
    unsigned long long sum = 0, all;
    size_t at = eqnn__scan_at();
    for (size_t i = at; i < at + EQNN__SCAN / EQNN__BLOCK && i < n; i++)
        sum += (unsigned long long)x[i];
    eqnn__block_scan(sum, &all);
    if (threadIdx.x == 0) part[blockIdx.x] = all;
}

/* One block: part becomes the sum of the parts before. It has n / 2048 numbers to read, which is
   little beside what the other two do. */
static __global__ void eqnn__scan_parts_kernel(size_t parts, unsigned long long *part,
                                               unsigned long long *total)
{
    unsigned long long carry = 0, all;
    for (size_t from = 0; from < parts; from += EQNN__BLOCK) {
        size_t i = from + threadIdx.x;
        unsigned long long before = eqnn__block_scan(i < parts ? part[i] : 0, &all);
        if (i < parts) part[i] = carry + before;
        carry += all;
    }
    if (threadIdx.x == 0 && total) *total = carry;
}

static __global__ void eqnn__scan_kernel(size_t n, const int *x, const unsigned long long *part,
                                         int *out)
{
    int v[EQNN__SCAN / EQNN__BLOCK];
    unsigned long long sum = 0, all;
    size_t at = eqnn__scan_at();
    for (int k = 0; k < EQNN__SCAN / EQNN__BLOCK; k++) {
        v[k] = at + (size_t)k < n ? x[at + (size_t)k] : 0;
        sum += (unsigned long long)v[k];
    }
    sum = part[blockIdx.x] + eqnn__block_scan(sum, &all);
    for (int k = 0; k < EQNN__SCAN / EQNN__BLOCK; k++) {
        if (at + (size_t)k <= n) out[at + (size_t)k] = (int)sum;
        sum += (unsigned long long)v[k];
    }
}

/* out[i] = x[0] + .. + x[i-1] for i = 0..n, which may be x with room for one more; total, when
   given, is the last, where int may be too small. */
static void eqnn__cuda_scan(eqnn__device *d, size_t n, const int *x, int *out,
                            unsigned long long *total)
{
    size_t parts = n / EQNN__SCAN + 1, room = EQNN__BLOCK * sizeof(unsigned long long);
    unsigned long long *part = (unsigned long long *)eqnn__scratch(d, EQNN__SCRATCH_PART,
                                                                   parts * sizeof *part);
    EQNN__RUN(d, eqnn__scan_sums_kernel, parts, EQNN__BLOCK, room, n, x, part);
    EQNN__RUN(d, eqnn__scan_parts_kernel, 1, EQNN__BLOCK, room, parts, part, total);
    EQNN__RUN(d, eqnn__scan_kernel, parts, EQNN__BLOCK, room, n, x, part, out);
}

/* ---- cells ---- */

static __device__ __forceinline__ int eqnn__crowd_example(const eqnn__crowd &j, size_t i)
{
    return j.example ? j.example[i] : 0;
}

static __device__ __forceinline__ int eqnn__crowd_bucket(const eqnn__crowd &j,
                                                         unsigned long long key, int example)
{
    unsigned long long h = key + (unsigned long long)example * 0xd1342543de82ef95ull;
    return (int)((h * 0x9e3779b97f4a7c15ull) >> (64 - j.bits));
}

/* Along an axis of space, from 1 on, so that the cell before has a number, too. */
static __device__ __forceinline__ unsigned long long eqnn__crowd_axis(double x, double width)
{
    double cell = floor(x / width), most = EQNN__SIDE - 2;
    if (!(cell > -most)) cell = -most;
    if (cell > most) cell = most;
    return (unsigned long long)(cell + EQNN__SIDE);
}

/* Along a lattice vector; home leads the point into the cell. */
static __device__ __forceinline__ unsigned long long
eqnn__crowd_slab(const eqnn__crowd &j, const eqnn__box *box, size_t i, int k, int *home)
{
    double f = 0;
    for (int c = 0; c < 3; c++) f += (double)j.pos[3 * i + (size_t)c] * box->inverse[3 * c + k];
    double steps = ceil(-f);
    if (!(fabs(steps) < 1e8)) {
        if (f - f == 0) atomicMin(j.told + 1, (unsigned long long)i);
        steps = f = 0;
    }
    int slab = (int)((f + steps) * box->slabs[k]);
    *home = (int)steps;
    return (unsigned long long)(slab < box->slabs[k] ? slab : box->slabs[k] - 1);
}

static __global__ void eqnn__crowd_cells_kernel(eqnn__crowd j)
{
    EQNN__STRIDE(i, j.n) {
        int example = eqnn__crowd_example(j, i);
        const eqnn__box *box = j.box ? j.box + example : NULL;
        unsigned long long key = 0;
        for (int k = 0; k < 3; k++) {
            double x = (double)j.pos[3 * i + (size_t)k];
            if (!(x - x == 0)) atomicMin(j.told, (unsigned long long)i);
            key |= (box ? eqnn__crowd_slab(j, box, i, k, j.home + 3 * i + k)
                        : eqnn__crowd_axis(x, j.cell)) << (21 * k);
        }
        j.key[i] = key;
        j.bucket[i] = eqnn__crowd_bucket(j, key, example);
        atomicAdd(j.count + j.bucket[i], 1);
    }
}

/* A bucket is filled from its end. */
static __global__ void eqnn__crowd_fill_kernel(eqnn__crowd j)
{
    EQNN__STRIDE(i, j.n) {
        int b = j.bucket[i], left = atomicAdd(j.count + b, -1);
        j.list[j.start[b] + left - 1] = (int)i;
    }
}

/* ---- edges ---- */

/* The d-th cell around that of point t, and w, the image of the box in which it lies; 0: there is
   none. */
static __device__ __forceinline__ int eqnn__crowd_cell(const eqnn__crowd &j, const eqnn__box *box,
                                                       size_t t, long long d, int w[3],
                                                       unsigned long long *key)
{
    *key = 0;
    for (int k = 0; k < 3; k++) {
        int reach = box ? box->reach[k] : 1, n = box ? box->slabs[k] : 1 << 21;
        int at = (int)(j.key[t] >> (21 * k) & 0x1fffff) + (int)(d % (2 * reach + 1)) - reach;
        d /= 2 * reach + 1;
        w[k] = at >= 0 ? at / n : -((n - 1 - at) / n);
        *key |= (unsigned long long)(at - w[k] * n) << (21 * k);
        if (!box && w[k] != 0) return 0;
    }
    return 1;
}

/* Is source s, moved by w boxes from where it is at home, near target t? Then 1, and the record. */
static __device__ __forceinline__ int eqnn__crowd_try(const eqnn__crowd &j, const eqnn__box *box,
                                                      int t, int s, const int w[3], int *record)
{
    int n[3] = {0, 0, 0}, sign = 0;
    if (!box && s == t) return 0;
    for (int k = 0; box && k < 3; k++) {
        n[k] = w[k] + j.home[3 * (size_t)s + (size_t)k] - j.home[3 * (size_t)t + (size_t)k];
        if (!sign) sign = (n[k] > 0) - (n[k] < 0);
    }
    if (s == t && !sign) return 0;
    int back = s < t || (s == t && sign < 0);
    for (int k = 0; back && k < 3; k++) n[k] = -n[k];
    if (!eqnn__near_by(j.pos, box ? box->cell : NULL, j.r2, s < t ? s : t, s < t ? t : s, n))
        return 0;
    if (!record) return 1;
    record[0] = s;
    for (int k = 0; box && k < 3; k++) record[1 + k] = n[k];
    if (box) record[4] = back;
    return 1;
}

/* This share of the edges that enter t; record NULL: only how many. */
static __device__ __forceinline__ int eqnn__crowd_look(const eqnn__crowd &j, size_t t, int share,
                                                       int *record)
{
    int example = eqnn__crowd_example(j, t), n = 0, w[3];
    const eqnn__box *box = j.box ? j.box + example : NULL;
    long long cells = 1;
    unsigned long long key;
    for (int k = 0; k < 3; k++) cells *= box ? 2 * box->reach[k] + 1 : 3;
    for (long long d = share; d < cells; d += EQNN__SHARES) {
        if (!eqnn__crowd_cell(j, box, t, d, w, &key)) continue;
        int b = eqnn__crowd_bucket(j, key, example);
        for (int q = j.start[b]; q < j.start[b + 1]; q++) {
            int s = j.list[q];
            if (j.key[s] != key || eqnn__crowd_example(j, (size_t)s) != example) continue;
            n += eqnn__crowd_try(j, box, (int)t, s, w,
                                 record ? record + (size_t)j.width * (size_t)n : NULL);
        }
    }
    if (share > 0 || !j.loops) return n;
    for (int k = 0; record && k < j.width; k++)
        record[(size_t)j.width * (size_t)n + (size_t)k] = k == 0 ? (int)t : k < 4 ? INT_MAX : 2;
    return n + 1;
}

static __global__ void eqnn__crowd_count_kernel(eqnn__crowd j)
{
    EQNN__STRIDE(i, j.n * EQNN__SHARES)
        j.found[i] = eqnn__crowd_look(j, i / EQNN__SHARES, (int)(i % EQNN__SHARES), NULL);
}

static __global__ void eqnn__crowd_edges_kernel(eqnn__crowd j)
{
    EQNN__STRIDE(i, j.n * EQNN__SHARES) {
        size_t t = i / EQNN__SHARES;
        if (i % EQNN__SHARES == 0) j.to.first[t] = j.found[i];
        if (i + 1 == j.n * EQNN__SHARES) j.to.first[t + 1] = j.found[i + 1];
        if (j.found[i] == j.found[i + 1]) continue;
        eqnn__crowd_look(j, t, (int)(i % EQNN__SHARES),
                         j.record + (size_t)j.width * (size_t)j.found[i]);
        for (int e = j.found[i]; e < j.found[i + 1]; e++) j.to.target[e] = (int)t;
    }
}

/* ---- order ---- */

static __device__ __forceinline__ int eqnn__record_less(const int *a, const int *b, int width)
{
    for (int k = 0; k < width; k++)
        if (a[k] != b[k]) return a[k] < b[k];
    return 0;
}

/* An edge goes behind all of its target that are less. The shift leads the source to its image,
   with the signs of zeros that the processor gives. */
static __global__ void eqnn__crowd_sort_kernel(eqnn__crowd j)
{
    EQNN__STRIDE(e, j.edges) {
        int t = j.to.target[e], at = j.to.first[t];
        const int *mine = j.record + (size_t)j.width * e;
        for (int f = j.to.first[t]; f < j.to.first[t + 1]; f++)
            at += eqnn__record_less(j.record + (size_t)j.width * (size_t)f, mine, j.width);
        j.to.source[at] = mine[0];
        j.to.same[e] = (int)e;
        for (int k = 0; j.box && k < 3; k++) {
            const double *cell = j.box[eqnn__crowd_example(j, (size_t)t)].cell;
            double x = mine[4] == 2 ? 0 : eqnn__lattice(cell, mine + 1, k);
            j.to.shift[3 * (size_t)at + (size_t)k] = (eqnn_real)(mine[4] == 1 ? -x : x);
        }
    }
}

/* The first edge of from..to-1 whose source is not below s. */
static __device__ __forceinline__ int eqnn__crowd_find(const eqnn__crowd &j, int from, int to,
                                                       int s)
{
    while (from < to) {
        int middle = from + (to - from) / 2;
        if (j.to.source[middle] < s) from = middle + 1;
        else to = middle;
    }
    return from;
}

/* Edges s -> t and t -> s are runs of the same length, and the q-th by source out of one is the
   q-th of the other by target. What leads back along an edge is found as on the processor
   (eqnn__reverses): among up to 64, the one with the opposite shift. */
static __global__ void eqnn__crowd_reverse_kernel(eqnn__crowd j)
{
    EQNN__STRIDE(i, j.edges) {
        int e = (int)i, t = j.to.target[e], s = j.to.source[e], back = e, matches = 0;
        int start = eqnn__crowd_find(j, j.to.first[t], j.to.first[t + 1], s);
        int from = eqnn__crowd_find(j, j.to.first[s], j.to.first[s + 1], t);
        int to = eqnn__crowd_find(j, from, j.to.first[s + 1], t + 1);
        j.to.by_source[from + e - start] = e;
        for (int f = from; f < to && to - from <= 64; f++) {
            int opposite = 1;
            for (size_t k = 0; j.box && k < 3; k++)
                opposite &= j.to.shift[3 * i + k] == -j.to.shift[3 * (size_t)f + k];
            if (!opposite) continue;
            back = f;
            matches++;
        }
        if (matches != 1) *j.to.lone = 1; /* all who write write the same */
        j.reverse[e] = back;
        j.leads[e] = back >= e;
    }
}

/* A pair has the number of the pairs that begin before its first edge, and two edges unless it is a
   loop. */
static __global__ void eqnn__crowd_pair_kernel(eqnn__crowd j)
{
    EQNN__STRIDE(i, j.edges) {
        int e = (int)i, f = j.reverse[e], t = j.to.target[e];
        int pair = j.to.pair_number[f < e ? f : e];
        if (*j.to.lone) continue;
        j.to.pair[e] = pair;
        if (i + 1 == j.edges) j.to.pair_first[j.to.pair_number[j.edges]] = e + 1;
        if (f < e) continue;
        int first = 2 * pair - (j.loops ? t + (j.to.source[e] > t) : 0);
        j.to.pair_edge[pair] = e;
        j.to.pair_first[pair] = first;
        j.to.pair_list[first] = e;
        if (f > e) j.to.pair_list[first + 1] = f;
    }
}

/* ---- the entry ---- */

/* What lasts from one call to the next, at p; returns its bytes. */
static size_t eqnn__crowd_place(eqnn__crowd *j, void *p)
{
    size_t at = 0, n = j->n, buckets = (size_t)1 << j->bits;
    eqnn__carve(p, &at, 3, &j->told);
    eqnn__carve(p, &at, n, &j->key);
    if (j->box) eqnn__carve(p, &at, (size_t)j->examples, &j->box);
    eqnn__carve(p, &at, 3 * n, &j->home);
    eqnn__carve(p, &at, n, &j->bucket);
    eqnn__carve(p, &at, n, &j->list);
    eqnn__carve(p, &at, buckets, &j->count);
    eqnn__carve(p, &at, buckets + 1, &j->start);
    eqnn__carve(p, &at, n * EQNN__SHARES + 1, &j->found);
    return at;
}

static void eqnn__crowd_count(eqnn__device *d, const eqnn__crowd *j, eqnn__cloud *q)
{
    size_t buckets = (size_t)1 << j->bits, n = j->n;
    unsigned long long told[3];
    eqnn__fill_ints(d, 3 * sizeof *j->told / sizeof(int), -1, j->told);
    eqnn__fill_ints(d, buckets, 0, j->count);
    if (q->box)
        eqnn__cuda_copy(d, (void *)(uintptr_t)j->box, q->box,
                        (size_t)q->examples * sizeof *q->box, EQNN__TO_DEVICE);
    EQNN__RUN(d, eqnn__crowd_cells_kernel, eqnn__grid_of(n), EQNN__BLOCK, 0, *j);
    eqnn__cuda_scan(d, buckets, j->count, j->start, NULL);
    EQNN__RUN(d, eqnn__crowd_fill_kernel, eqnn__grid_of(n), EQNN__BLOCK, 0, *j);
    EQNN__RUN(d, eqnn__crowd_count_kernel, eqnn__grid_of(n * EQNN__SHARES), EQNN__BLOCK, 0, *j);
    eqnn__cuda_scan(d, n * EQNN__SHARES, j->found, j->found, j->told + 2);
    eqnn__cuda_copy(d, told, j->told, sizeof told, EQNN__TO_HOST);
    q->bad = told[0] == EQNN__UNMARKED ? -1 : (int64_t)told[0];
    q->away = told[1] == EQNN__UNMARKED ? -1 : (int64_t)told[1];
    q->edges = (int64_t)told[2];
}

static void eqnn__crowd_fill(eqnn__device *d, eqnn__crowd *j, const eqnn__cloud *q)
{
    size_t edges = j->edges = (size_t)q->edges, grid = eqnn__grid_of(edges);
    j->to = q->to;
    j->record = (int *)eqnn__scratch(d, EQNN__SCRATCH_EDGES,
                                     (edges * ((size_t)j->width + 2) + 1) * sizeof(int));
    if (!j->record) return;
    j->reverse = j->record + edges * (size_t)j->width;
    j->leads = j->reverse + edges;
    eqnn__fill_ints(d, 1, 0, j->to.lone);
    if (j->n == 0) eqnn__fill_ints(d, 1, 0, j->to.first);
    EQNN__RUN(d, eqnn__crowd_edges_kernel, eqnn__grid_of(j->n * EQNN__SHARES), EQNN__BLOCK, 0, *j);
    EQNN__RUN(d, eqnn__crowd_sort_kernel, grid, EQNN__BLOCK, 0, *j);
    EQNN__RUN(d, eqnn__crowd_reverse_kernel, grid, EQNN__BLOCK, 0, *j);
    eqnn__cuda_scan(d, edges, j->leads, j->to.pair_number, NULL);
    EQNN__RUN(d, eqnn__crowd_pair_kernel, grid, EQNN__BLOCK, 0, *j);
}

static void eqnn__cuda_neighbours(eqnn__device *d, eqnn__cloud *q)
{
    eqnn__crowd j;
    memset(&j, 0, sizeof j);
    j.n = (size_t)q->n;
    j.loops = q->loops;
    j.examples = q->examples;
    j.width = q->box ? 5 : 1;
    j.pos = q->pos;
    j.example = q->example;
    j.box = q->box;
    j.cell = q->width;
    j.r2 = q->r2;
    j.bits = 1;
    while (j.bits < 30 && (size_t)1 << j.bits < j.n) j.bits++;
    void *p = eqnn__scratch(d, EQNN__SCRATCH_NEAR, eqnn__crowd_place(&j, NULL));
    if (!p) return;
    j.box = q->box;
    eqnn__crowd_place(&j, p);
    if (q->to.first) eqnn__crowd_fill(d, &j, q);
    else eqnn__crowd_count(d, &j, q);
}

/* ----------------------------------------------------------------------------------------------
   6 >>table   The only symbol that is seen from outside; its name carries the scalar type.
   ---------------------------------------------------------------------------------------------- */

static const eqnn__kernels eqnn__cuda_kernels = {
    eqnn__cuda_begin,      eqnn__cuda_end,           eqnn__cuda_reserve,   eqnn__cuda_release,
    eqnn__cuda_copy,       eqnn__cuda_fill,          eqnn__cuda_wait,      eqnn__cuda_send,
    eqnn__cuda_map,        eqnn__cuda_random,        eqnn__cuda_check,     eqnn__cuda_fold_rows,
    eqnn__cuda_fold_cols,  eqnn__cuda_fold_segments, eqnn__cuda_dot_rows,  eqnn__cuda_total,
    eqnn__cuda_softmax,    eqnn__cuda_largest,       eqnn__cuda_standard,  eqnn__cuda_take_rows,
    eqnn__cuda_copy2d,     eqnn__cuda_transpose,     eqnn__cuda_take_cols, eqnn__cuda_add_cols,
    eqnn__cuda_gemm,       eqnn__cuda_form,          eqnn__cuda_solid,     eqnn__cuda_solid_vjp,
    eqnn__cuda_frame,      eqnn__cuda_neighbours,    eqnn__cuda_update,    1
};

const eqnn__kernels *eqnn__cuda(void)
{
    return &eqnn__cuda_kernels;
}

#endif /* EQNN_CUDA_CUH */

/* ----------------------------------------------------------------------------------------------
   LICENCE       Take this file under either of the two, whichever suits you.

   A  Public domain (Unlicense, unlicense.org)

   This is free and unencumbered software released into the public domain. Anyone is free to copy,
   modify, publish, use, compile, sell, or distribute this software, either in source code form or
   as a compiled binary, for any purpose, commercial or non-commercial, and by any means.

   In jurisdictions that recognize copyright laws, the author or authors of this software dedicate
   any and all copyright interest in the software to the public domain. We make this dedication for
   the benefit of the public at large and to the detriment of our heirs and successors. We intend
   this dedication to be an overt act of relinquishment in perpetuity of all present and future
   rights to this software under copyright law.

   THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT
   NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND
   NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
   LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN
   CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.

   B  MIT License, Copyright (c) the eqnn authors

   Permission is hereby granted, free of charge, to any person obtaining a copy of this software and
   associated documentation files (the "Software"), to deal in the Software without restriction,
   including without limitation the rights to use, copy, modify, merge, publish, distribute,
   sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is
   furnished to do so, subject to the following conditions:

   The above copyright notice and this permission notice shall be included in all copies or
   substantial portions of the Software.

   THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT
   NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND
   NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM,
   DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
   OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.

   CHANGES       0.1   first version
   ---------------------------------------------------------------------------------------------- */
