/* cuda_emulate.h - runs eqnn_cuda.cuh on a processor, to test it where there is no GPU

      #include "cuda_emulate.h"          // instead of CUDA
      #include "../eqnn_cuda.cuh"        // c++ -x c++ -std=c++17

   It gives what the .cuh uses of CUDA's language and runtime, and looks for what a GPU would not
   forgive; what it finds it says, with the kernel's name, and exits with status 99:

      a barrier that not all threads of a block (a shuffle: of a warp) meet, or meet elsewhere
      a touch of device memory by the host, and of the host's by a kernel (the memory that
          emulate_alloc hands out, for eqnn_opts.alloc)
      a touch outside a block's shared memory, which is NaN until it is written
      writing outside a piece of device memory
      16 bytes (or a number) that do not begin at a multiple of their size, where the compiler
          can look for that (EMULATE_ALIGNED in the Makefile; clang sees little of it)
      a launch that the device would refuse

   Work on a stream is put off until something waits for it, as a busy GPU would: copies that read
   their source too late, and results that are read too early, show. Blocks and threads run one
   after the other, on one fiber until a barrier makes each thread need its own; with
   emulate_backwards set they run in the opposite order, which must give the same bits. With
   emulate_refuse = n, the n-th call of CUDA from now on fails; those that make or change graphs,
   without which things work as well, have emulate_refuse_graph. */
#ifndef CUDA_EMULATE_H
#define CUDA_EMULATE_H

#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <new>
#include <signal.h>
#include <sys/mman.h>
#include <tuple>
#include <unistd.h>
#include <vector>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

#if defined(__GNUC__) || defined(__clang__)
#define EMULATE_UNUSED __attribute__((unused))
#else
#define EMULATE_UNUSED
#endif

/* ---- the language ---- */

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __grid_constant__
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))

struct emulate_index { unsigned x, y, z; };
static emulate_index threadIdx, blockIdx, blockDim, gridDim;

enum { EMULATE_THREADS = 1024 };
static int emulate_backwards EMULATE_UNUSED; /* threads and blocks run in the opposite order     */
static int emulate_refuse EMULATE_UNUSED;    /* n > 0: the n-th call fails, counted from now     */
static int emulate_refuse_graph EMULATE_UNUSED, emulate_building; /* of calls about graphs       */
static const char *emulate_kernel;           /* the one that runs, or NULL                       */

EMULATE_UNUSED __attribute__((noreturn, format(printf, 1, 2)))
static void emulate_fail(const char *format, ...)
{
    char text[400];
    va_list list;
    int n = snprintf(text, sizeof text, "cuda_emulate: %s%s", emulate_kernel ? emulate_kernel : "",
                     emulate_kernel ? ": " : "");
    va_start(list, format);
    vsnprintf(text + n, sizeof text - (size_t)n, format, list);
    va_end(list);
    fprintf(stderr, "%s\n", text);
    fflush(stderr);
    _exit(99);
}

/* ---- memory: two regions, of which one at a time may be touched ---- */

enum : size_t { EMULATE_REGION = (size_t)1 << 33, EMULATE_ZONE = 256 };

/* Pieces of a range of addresses, first fit, with a zone of known bytes behind each. */
struct emulate_region {
    char *base = NULL;
    size_t high = 0, limit = EMULATE_REGION, used = 0;
    int opened = 0; /* may be touched now */
    std::map<size_t, size_t> piece; /* start -> bytes */
};
static emulate_region emulate_device, emulate_host;

static void emulate_pages(emulate_region &r, size_t at, size_t bytes, int open)
{
    size_t first = at / 65536 * 65536, end = (at + bytes + 65535) / 65536 * 65536;
    if (bytes && mprotect(r.base + first, end - first, open ? PROT_READ | PROT_WRITE : PROT_NONE))
        emulate_fail("mprotect fails");
}

static void emulate_open(emulate_region &r, int open)
{
    if (r.opened != open) emulate_pages(r, 0, r.high, open);
    r.opened = open;
}

static size_t emulate_round(size_t n)
{
    return (n + EMULATE_ZONE - 1) / EMULATE_ZONE * EMULATE_ZONE;
}

/* New memory is all ones (NaN). */
static void *emulate_take(emulate_region &r, size_t bytes)
{
    size_t need = emulate_round(bytes) + EMULATE_ZONE, at = 0;
    if (!r.base) {
        void *p = mmap(NULL, EMULATE_REGION, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                       -1, 0);
        if (p == MAP_FAILED) emulate_fail("no room for the emulated memory");
        r.base = (char *)p;
    }
    for (auto &q : r.piece) {
        if (q.first - at >= need) break;
        at = q.first + emulate_round(q.second) + EMULATE_ZONE;
    }
    if (bytes > r.limit || r.used + bytes > r.limit || at + need > EMULATE_REGION) return NULL;
    r.high = at + need > r.high ? (at + need + 65535) / 65536 * 65536 : r.high;
    r.used += bytes;
    r.piece[at] = bytes;
    emulate_pages(r, at, need, 1);
    memset(r.base + at, 0xff, bytes);
    memset(r.base + at + bytes, 0xa5, need - bytes);
    if (!r.opened) emulate_pages(r, at, need, 0);
    return r.base + at;
}

static void emulate_zone(emulate_region &r, size_t at, size_t bytes)
{
    static char zone[2 * EMULATE_ZONE];
    size_t end = emulate_round(bytes) + EMULATE_ZONE;
    if (!zone[0]) memset(zone, 0xa5, sizeof zone);
    if (!memcmp(r.base + at + bytes, zone, end - bytes)) return;
    for (size_t i = bytes; i < end; i++)
        if (r.base[at + i] != zone[0]) emulate_fail("byte %zu of %zu was written", i, bytes);
}

/* Returns whether p is the start of a piece. */
static int emulate_give(emulate_region &r, void *p)
{
    auto q = r.piece.end();
    if (r.base && (char *)p >= r.base) q = r.piece.find((size_t)((char *)p - r.base));
    if (q == r.piece.end()) return 0;
    size_t need = emulate_round(q->second) + EMULATE_ZONE;
    emulate_pages(r, q->first, need, 1);
    emulate_zone(r, q->first, q->second);
    memset(p, 0xdd, q->second);
    if (!r.opened) emulate_pages(r, q->first, need, 0);
    r.used -= q->second;
    r.piece.erase(q);
    r.high = 0; /* what has to be locked and unlocked becomes less */
    if (!r.piece.empty()) {
        auto last = --r.piece.end();
        r.high = last->first + emulate_round(last->second) + EMULATE_ZONE;
        r.high = (r.high + 65535) / 65536 * 65536;
    }
    return 1;
}

/* For eqnn_opts.alloc: memory of the host that kernels may not touch. */
EMULATE_UNUSED static void *emulate_alloc(void *user, void *old, size_t old_size, size_t new_size)
{
    void *p = NULL;
    (void)user;
    if (new_size) {
        emulate_open(emulate_host, 1);
        p = emulate_take(emulate_host, new_size);
        if (p && old) memcpy(p, old, old_size < new_size ? old_size : new_size);
        if (!p) return NULL;
    }
    if (old) emulate_give(emulate_host, old);
    return p;
}

static int emulate_within(const emulate_region &r, const void *p, size_t bytes)
{
    const char *q = (const char *)p;
    return r.base && q >= r.base && q + bytes <= r.base + r.high;
}

/* ---- fibers: a thread of a block that has met a barrier waits on a stack of its own ---- */

enum { EMULATE_STACK = 256 << 10 };
struct emulate_fiber {
    char *stack = NULL;
#if defined(__x86_64__)
    void *at = NULL;
#else
    ucontext_t at;
#endif
};
static emulate_fiber emulate_fibers[EMULATE_THREADS + 1]; /* the last: the scheduler */
static void emulate_threads(void);

#if defined(__x86_64__)
extern "C" void emulate_jump(void **from, void *to);
__asm__(".text\n"
        ".type emulate_jump,@function\n"
        "emulate_jump:\n"
        "    pushq %rbp\n    pushq %rbx\n    pushq %r12\n    pushq %r13\n    pushq %r14\n"
        "    pushq %r15\n    movq %rsp, (%rdi)\n    movq %rsi, %rsp\n"
        "    popq %r15\n    popq %r14\n    popq %r13\n    popq %r12\n    popq %rbx\n    popq %rbp\n"
        "    ret\n");

static void emulate_switch(emulate_fiber &from, emulate_fiber &to)
{
    emulate_jump(&from.at, to.at);
}

static void emulate_begin(emulate_fiber &f)
{
    uintptr_t *top = (uintptr_t *)(void *)(f.stack + EMULATE_STACK - 64);
    *--top = 0;                            /* where a function finds its return address */
    *--top = (uintptr_t)emulate_threads;
    for (int i = 0; i < 6; i++) *--top = 0;
    f.at = top;
}
#else
static void emulate_switch(emulate_fiber &from, emulate_fiber &to)
{
    swapcontext(&from.at, &to.at);
}

static void emulate_begin(emulate_fiber &f)
{
    getcontext(&f.at);
    f.at.uc_stack.ss_sp = f.stack;
    f.at.uc_stack.ss_size = EMULATE_STACK;
    f.at.uc_link = NULL;
    makecontext(&f.at, emulate_threads, 0);
}
#endif

/* Threads change places millions of times: that is optimized also where nothing else is. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC push_options
#pragma GCC optimize("O2")
#endif

/* ---- a block ---- */

enum { EMULATE_NEW, EMULATE_READY, EMULATE_BLOCK, EMULATE_WARP, EMULATE_DONE };
struct emulate_thread { int state, line, fiber, turn; };
static emulate_thread emulate_all[EMULATE_THREADS];
static unsigned emulate_count, emulate_next, emulate_self; /* threads; started; the one at work */
static int emulate_here, emulate_idle[EMULATE_THREADS], emulate_idles, emulate_made;
static const std::function<void()> *emulate_body;
static char *emulate_shared_start;
static size_t emulate_shared_page, emulate_shared_room = (size_t)1 << 20;
static unsigned char emulate_slot[2][EMULATE_THREADS][16];

static void emulate_be(unsigned t)
{
    emulate_self = t;
    threadIdx.x = t;
}

/* Runs threads that have not begun; one that waits keeps this fiber. */
static void emulate_threads(void)
{
    for (;;) {
        while (emulate_next < emulate_count) {
            unsigned k = emulate_next++, t = emulate_backwards ? emulate_count - 1 - k : k;
            emulate_all[t].fiber = emulate_here;
            emulate_be(t);
            (*emulate_body)();
            emulate_all[emulate_self].state = EMULATE_DONE;
        }
        emulate_idle[emulate_idles++] = emulate_here;
        emulate_switch(emulate_fibers[emulate_here], emulate_fibers[EMULATE_THREADS]);
    }
}

static void emulate_go(int fiber)
{
    emulate_here = fiber;
    emulate_switch(emulate_fibers[EMULATE_THREADS], emulate_fibers[fiber]);
}

static void emulate_start(void)
{
    if (emulate_idles == 0) {
        emulate_fiber &f = emulate_fibers[emulate_made];
        void *p = mmap(NULL, EMULATE_STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                       -1, 0);
        if (p == MAP_FAILED) emulate_fail("no room for a thread's stack");
        f.stack = (char *)p;
        emulate_begin(f);
        emulate_idle[emulate_idles++] = emulate_made++;
    }
    emulate_go(emulate_idle[--emulate_idles]);
}

static void emulate_wait(int state, int line)
{
    if (!emulate_kernel) emulate_fail("a barrier outside a kernel, line %d", line);
    unsigned t = emulate_self;
    emulate_all[t].state = state;
    emulate_all[t].line = line;
    emulate_switch(emulate_fibers[emulate_here], emulate_fibers[EMULATE_THREADS]);
    emulate_be(t);
}

static const char *emulate_doing(const emulate_thread &t)
{
    return t.state == EMULATE_BLOCK ? "waits for its block" : t.state == EMULATE_WARP
        ? "waits for its warp" : "has ended";
}

/* Lets threads first..first+n-1 go on when all wait in the same way at the same line; 1 when so. */
static int emulate_release(unsigned first, unsigned n, int state)
{
    for (unsigned t = first; t < first + n; t++)
        if (emulate_all[t].state != state || emulate_all[t].line != emulate_all[first].line)
            return 0;
    for (unsigned t = first; t < first + n; t++) emulate_all[t].state = EMULATE_READY;
    return 1;
}

static void emulate_divergent(void)
{
    unsigned a = 0, b = 0;
    while (emulate_all[a].state == EMULATE_DONE) a++;
    while (b + 1 < emulate_count && emulate_all[b].state == emulate_all[a].state &&
           emulate_all[b].line == emulate_all[a].line)
        b++;
    emulate_fail("divergent barrier in block %u: thread %u %s (line %d), thread %u %s (line %d)",
                 blockIdx.x, a, emulate_doing(emulate_all[a]), emulate_all[a].line, b,
                 emulate_doing(emulate_all[b]), emulate_all[b].line);
}

static int emulate_over(void)
{
    for (unsigned t = 0; t < emulate_count; t++)
        if (emulate_all[t].state != EMULATE_DONE) return 0;
    return 1;
}

static void emulate_block(void)
{
    emulate_next = 0;
    for (unsigned t = 0; t < emulate_count; t++) emulate_all[t] = emulate_thread();
    while (emulate_next < emulate_count) emulate_start();
    while (!emulate_over()) {
        int moves = emulate_release(0, emulate_count, EMULATE_BLOCK);
        for (unsigned w = 0; w < emulate_count; w += 32)
            moves |= emulate_release(w, 32, EMULATE_WARP);
        if (!moves) emulate_divergent();
        for (unsigned k = 0; k < emulate_count; k++) {
            unsigned t = emulate_backwards ? emulate_count - 1 - k : k;
            if (emulate_all[t].state == EMULATE_READY) emulate_go(emulate_all[t].fiber);
        }
    }
}

#define __syncthreads() emulate_wait(EMULATE_BLOCK, __LINE__)
#define __syncwarp(...) emulate_wait(EMULATE_WARP, __LINE__)

/* The value that lane `from` of this warp gives; two slots in turn, so that one barrier does. */
template <class T> static T emulate_shuffle(int line, unsigned mask, T v, unsigned from)
{
    static_assert(sizeof(T) <= 16, "a shuffle moves at most 16 bytes");
    emulate_thread &me = emulate_all[emulate_self];
    int turn = me.turn;
    if (mask != 0xffffffffu) emulate_fail("line %d: a shuffle of part of a warp", line);
    memcpy(emulate_slot[turn][emulate_self], &v, sizeof v);
    me.turn = !turn;
    unsigned at = emulate_self / 32 * 32 + from;
    emulate_wait(EMULATE_WARP, line);
    memcpy(&v, emulate_slot[turn][at], sizeof v);
    return v;
}

static EMULATE_UNUSED unsigned emulate_lane(void)
{
    return emulate_self % 32;
}

template <class T> static T emulate_xor(int line, unsigned mask, T v, int with, int width = 32)
{
    unsigned lane = emulate_lane(), from = lane ^ (unsigned)with, w = (unsigned)width;
    return emulate_shuffle(line, mask, v, from / w > lane / w || from > 31 ? lane : from);
}

template <class T> static T emulate_down(int line, unsigned mask, T v, unsigned by, int width = 32)
{
    unsigned lane = emulate_lane(), w = (unsigned)width;
    return emulate_shuffle(line, mask, v, lane % w + by < w ? lane + by : lane);
}

template <class T> static T emulate_up(int line, unsigned mask, T v, unsigned by, int width = 32)
{
    unsigned lane = emulate_lane(), w = (unsigned)width;
    return emulate_shuffle(line, mask, v, lane % w >= by ? lane - by : lane);
}

template <class T> static T emulate_at(int line, unsigned mask, T v, int from, int width = 32)
{
    unsigned lane = emulate_lane(), w = (unsigned)width;
    return emulate_shuffle(line, mask, v, lane / w * w + (unsigned)from % w);
}

#define __shfl_xor_sync(...) emulate_xor(__LINE__, __VA_ARGS__)
#define __shfl_down_sync(...) emulate_down(__LINE__, __VA_ARGS__)
#define __shfl_up_sync(...) emulate_up(__LINE__, __VA_ARGS__)
#define __shfl_sync(...) emulate_at(__LINE__, __VA_ARGS__)

static inline unsigned long long atomicMin(unsigned long long *p, unsigned long long v)
{
    unsigned long long old = *p;
    if (v < old) *p = v;
    return old;
}

static inline int atomicAdd(int *p, int v)
{
    int old = *p;
    *p = old + v;
    return old;
}

template <class T> static inline T __ldg(const T *p)
{
    return *p;
}

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC pop_options
#endif

/* ---- launches ---- */

/* A block's shared memory ends where a page begins that may not be touched. */
static void *emulate_shared_at(size_t bytes)
{
    return emulate_shared_start + emulate_shared_room - (bytes + 15) / 16 * 16;
}

static size_t emulate_shared_bytes;
#define EQNN_SHARED(type, name) type *name = (type *)emulate_shared_at(emulate_shared_bytes)

static void emulate_crash(int number, siginfo_t *info, void *context)
{
    const char *p = (const char *)info->si_addr;
    (void)context;
    if (number == SIGILL || number == SIGTRAP)
        emulate_fail("block %u, thread %u touches what is not aligned", blockIdx.x, threadIdx.x);
    if (emulate_within(emulate_device, p, 1) && !emulate_kernel)
        emulate_fail("the host touches device memory");
    if (emulate_within(emulate_host, p, 1) && emulate_kernel)
        emulate_fail("block %u, thread %u touches memory of the host", blockIdx.x, threadIdx.x);
    if (p >= emulate_shared_start &&
        p < emulate_shared_start + emulate_shared_room + emulate_shared_page)
        emulate_fail("block %u, thread %u touches memory behind what is shared", blockIdx.x,
                     threadIdx.x);
    if (!emulate_kernel) {
        signal(number, SIG_DFL);
        return;
    }
    emulate_fail("block %u, thread %u touches a bad address", blockIdx.x, threadIdx.x);
}

static void emulate_prepare(void)
{
    static char stack[1 << 16];
    stack_t alternative;
    struct sigaction action;
    if (emulate_shared_start) return;
    emulate_shared_page = (size_t)sysconf(_SC_PAGESIZE);
    void *p = mmap(NULL, emulate_shared_room + emulate_shared_page, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED ||
        mprotect((char *)p + emulate_shared_room, emulate_shared_page, PROT_NONE))
        emulate_fail("no room for shared memory");
    emulate_shared_start = (char *)p;
    memset(&alternative, 0, sizeof alternative);
    alternative.ss_sp = stack;
    alternative.ss_size = sizeof stack;
    sigaltstack(&alternative, NULL);
    memset(&action, 0, sizeof action);
    action.sa_sigaction = emulate_crash;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
#ifdef EMULATE_ALIGNED
    sigaction(SIGILL, &action, NULL);
    sigaction(SIGTRAP, &action, NULL);
#endif
}

static void emulate_grid(const char *name, size_t grid, size_t block, size_t shared,
                         const std::function<void()> &body)
{
    emulate_prepare();
    emulate_kernel = name;
    emulate_open(emulate_device, 1);
    emulate_open(emulate_host, 0);
    emulate_body = &body;
    emulate_count = (unsigned)block;
    emulate_shared_bytes = shared;
    gridDim.x = (unsigned)grid;
    blockDim.x = (unsigned)block;
    for (size_t b = 0; b < grid; b++) {
        blockIdx.x = (unsigned)(emulate_backwards ? grid - 1 - b : b);
        memset(emulate_shared_at(shared), 0xff, (shared + 15) / 16 * 16);
        emulate_block();
    }
    for (auto &q : emulate_device.piece) emulate_zone(emulate_device, q.first, q.second);
    emulate_kernel = NULL;
}

/* ---- the runtime: devices that share the emulated memory but may not touch each other's, and work
   put off until something waits ---- */

enum cudaError_t {
    cudaSuccess, cudaErrorInvalidValue, cudaErrorMemoryAllocation,
    cudaErrorInvalidConfiguration = 9, cudaErrorNoDevice = 100, cudaErrorUnknown = 999
};
enum cudaMemcpyKind {
    cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice
};
enum { cudaStreamNonBlocking = 1, cudaEventDisableTiming };
enum cudaDeviceAttr {
    cudaDevAttrMultiProcessorCount = 16, cudaDevAttrMaxSharedMemoryPerBlockOptin = 97
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
enum : size_t { EMULATE_SHARED = 99 << 10 }; /* bytes that a block may ask for */

typedef struct emulate_stream *cudaStream_t;
struct emulate_event { int pending; cudaStream_t stream; };
typedef struct emulate_event *cudaEvent_t;

/* A graph: work in a line. A node knows its place; a kernel or a copy there can be changed. */
enum { EMULATE_GRAPH_KERNEL, EMULATE_GRAPH_COPY, EMULATE_GRAPH_CHILD };
struct emulate_node { struct emulate_graph *graph; size_t place; int kind; };
typedef struct emulate_node *cudaGraphNode_t;
typedef struct emulate_graph *cudaGraph_t;
typedef struct emulate_executable *cudaGraphExec_t;
struct emulate_graph {
    std::vector<std::function<void()>> work;
    std::deque<emulate_node> node;
};
struct emulate_executable {
    emulate_graph *graph;
    std::vector<std::function<void()>> work;
    int pending;
};
struct emulate_stream {
    std::deque<std::function<void()>> work;
    emulate_graph *capture = NULL;
    int device = 0;
};

static cudaError_t emulate_last;
static int emulate_devices EMULATE_UNUSED = 1;
static int emulate_present;                  /* the device that was chosen last */
static std::map<const void *, int> emulate_owner; /* of pieces of device memory */
static long emulate_launches, emulate_waits; /* counted, for tests */
static long emulate_replays EMULATE_UNUSED, emulate_changes EMULATE_UNUSED; /* graphs; nodes */
static std::map<std::pair<int, const void *>, size_t> emulate_allowed; /* by device and kernel */
static std::vector<cudaStream_t> emulate_streams; /* all that there are: one for each context */

static cudaError_t emulate_return(cudaError_t e)
{
    int *refuse = emulate_building ? &emulate_refuse_graph : &emulate_refuse;
    if (*refuse > 0 && --*refuse == 0) e = cudaErrorUnknown;
    if (e != cudaSuccess) emulate_last = e;
    return e;
}

/* Work until the stream is empty or, with an event, until that has passed; then the device's memory
   is locked again, once for all of it. */
static void emulate_work(cudaStream_t s, const int *pending)
{
    while (!s->work.empty() && (!pending || *pending > 0)) {
        std::function<void()> f = std::move(s->work.front());
        s->work.pop_front();
        f();
    }
    emulate_open(emulate_device, 0);
    emulate_open(emulate_host, 1);
}

static void emulate_chosen(int device, const char *what)
{
    if (device != emulate_present)
        emulate_fail("%s of device %d while device %d is chosen", what, device, emulate_present);
}

/* On the stream, or in the graph that captures it. */
static void emulate_put(cudaStream_t s, const std::function<void()> &work)
{
    emulate_chosen(s->device, "a stream");
    if (s->capture) s->capture->work.push_back(work);
    else s->work.push_back(work);
}

static void emulate_not_captured(const emulate_stream *s, const char *what)
{
    if (s && s->capture) emulate_fail("%s: its stream is being captured", what);
}

/* Kernels that were named, by their address: from where arguments lie to what runs. */
struct emulate_known {
    const char *name;
    std::function<std::function<void()>(void **)> bind;
};
static std::map<const void *, emulate_known> emulate_kernels;

template <class P> static P emulate_argument(const void *p)
{
    alignas(P) unsigned char v[sizeof(P)];
    memcpy(v, p, sizeof v);
    return *(const P *)(const void *)v;
}

template <class... P, size_t... i>
static std::function<void()> emulate_bind(void (*kernel)(P...), void **args,
                                          std::index_sequence<i...>)
{
    std::tuple<P...> given(emulate_argument<P>(args[i])...);
    return [=] { std::apply(kernel, given); };
}

template <class... P>
static auto emulate_know(const char *name, void (*kernel)(P...)) -> void (*)(P...)
{
    emulate_known &known = emulate_kernels[(const void *)kernel];
    if (!known.name) {
        known.name = name;
        known.bind = [=](void **args) {
            return emulate_bind(kernel, args, std::index_sequence_for<P...>());
        };
    }
    return kernel;
}

/* What a launch puts on a stream; none when the device would refuse it. */
static std::function<void()> emulate_kernel_work(const void *kernel, size_t grid, size_t block,
                                          size_t shared, void **args)
{
    auto known = emulate_kernels.find(kernel);
    auto allowed = emulate_allowed.find(std::make_pair(emulate_present, kernel));
    size_t most = allowed == emulate_allowed.end() ? 49152 : allowed->second;
    if (known == emulate_kernels.end()) emulate_fail("an unknown kernel is launched");
    const char *name = known->second.name;
    if (block % 32 != 0) emulate_fail("%s: blocks of %zu threads", name, block);
    if (grid == 0 || grid > 0x7fffffff || block == 0 || block > EMULATE_THREADS || shared > most)
        return std::function<void()>();
    std::function<void()> body = known->second.bind(args);
    return [=] { emulate_grid(name, grid, block, shared, body); };
}

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};

static cudaError_t emulate_launch_now(const void *kernel, dim3 grid, dim3 block, void **args,
                                      size_t shared, cudaStream_t s)
{
    emulate_launches++;
    std::function<void()> work = emulate_kernel_work(kernel, grid.x, block.x, shared, args);
    if (!work) return emulate_return(cudaErrorInvalidConfiguration);
    cudaError_t e = emulate_return(cudaSuccess);
    if (e == cudaSuccess) emulate_put(s, work);
    return e;
}

template <class... P, class... A>
static void emulate_launch(const char *name, void (*kernel)(P...), size_t grid, size_t block,
                           size_t shared, cudaStream_t s, A... args)
{
    std::tuple<P...> given(args...);
    void *at[sizeof...(P)];
    std::apply([&](P &...v) { size_t n = 0; ((at[n++] = &v), ...); }, given);
    emulate_know(name, kernel);
    emulate_launch_now((const void *)kernel, dim3((unsigned)grid), dim3((unsigned)block), at,
                       shared, s);
}

#define EQNN__WORKSPACE ((size_t)1 << 16) /* nobody uses it, and locking memory takes time */
#define EQNN_LAUNCH(kernel, grid, block, shared, stream, ...) \
    emulate_launch(#kernel, kernel, grid, block, shared, stream, __VA_ARGS__)

#define EQNN_KERNEL(kernel) emulate_know(#kernel, kernel)

#define EMULATE_API EMULATE_UNUSED static inline

EMULATE_API cudaError_t cudaLaunchKernel(const void *kernel, dim3 grid, dim3 block, void **args,
                                         size_t shared, cudaStream_t s)
{
    return emulate_launch_now(kernel, grid, block, args, shared, s);
}

EMULATE_API cudaError_t cudaGetLastError(void)
{
    cudaError_t e = emulate_last;
    emulate_last = cudaSuccess;
    return e;
}

EMULATE_API const char *cudaGetErrorString(cudaError_t e)
{
    return e == cudaErrorMemoryAllocation ? "out of memory" : e == cudaErrorInvalidConfiguration
        ? "invalid configuration argument" : e == cudaErrorNoDevice
        ? "no CUDA-capable device is detected" : e == cudaErrorInvalidValue ? "invalid argument"
        : e == cudaSuccess ? "no error" : "unknown error";
}

EMULATE_API cudaError_t cudaGetDeviceCount(int *n)
{
    *n = emulate_devices;
    return emulate_return(emulate_devices > 0 ? cudaSuccess : cudaErrorNoDevice);
}

EMULATE_API cudaError_t cudaSetDevice(int index)
{
    cudaError_t e = emulate_return(index < emulate_devices ? cudaSuccess : cudaErrorInvalidValue);
    if (e == cudaSuccess) emulate_present = index;
    return e;
}

EMULATE_API cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr what, int index)
{
    (void)index;
    *value = what == cudaDevAttrMultiProcessorCount ? 4 : (int)EMULATE_SHARED;
    return emulate_return(cudaSuccess);
}

EMULATE_API cudaError_t cudaFuncSetAttribute(const void *kernel, cudaFuncAttribute what, int bytes)
{
    (void)what;
    if ((size_t)bytes > EMULATE_SHARED) return emulate_return(cudaErrorInvalidValue);
    emulate_allowed[std::make_pair(emulate_present, kernel)] = (size_t)bytes;
    return emulate_return(cudaSuccess);
}

EMULATE_API cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned flags)
{
    (void)flags;
    *s = NULL;
    cudaError_t e = emulate_return(cudaSuccess);
    if (e != cudaSuccess) return e;
    *s = new emulate_stream;
    (*s)->device = emulate_present;
    emulate_streams.push_back(*s);
    return e;
}

EMULATE_API cudaError_t cudaStreamSynchronize(cudaStream_t s)
{
    emulate_waits++;
    emulate_not_captured(s, "a wait");
    emulate_chosen(s->device, "a stream");
    emulate_work(s, NULL);
    return emulate_return(cudaSuccess);
}

EMULATE_API cudaError_t cudaStreamDestroy(cudaStream_t s)
{
    emulate_work(s, NULL);
    for (size_t i = 0; i < emulate_streams.size(); i++)
        if (emulate_streams[i] == s) emulate_streams.erase(emulate_streams.begin() + (long)i--);
    delete s;
    return emulate_return(cudaSuccess);
}

EMULATE_API cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned flags)
{
    (void)flags;
    *e = NULL;
    cudaError_t result = emulate_return(cudaSuccess);
    if (result == cudaSuccess) *e = new emulate_event();
    return result;
}

EMULATE_API cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s)
{
    emulate_not_captured(s, "an event");
    e->pending++;
    e->stream = s;
    emulate_put(s, [=] { e->pending--; });
    return emulate_return(cudaSuccess);
}

EMULATE_API cudaError_t cudaEventSynchronize(cudaEvent_t e)
{
    if (e->pending > 0) emulate_work(e->stream, &e->pending);
    return emulate_return(cudaSuccess);
}

EMULATE_API cudaError_t cudaEventDestroy(cudaEvent_t e)
{
    delete e;
    return emulate_return(cudaSuccess);
}

template <class T> EMULATE_API cudaError_t cudaMalloc(T **p, size_t bytes)
{
    *p = NULL;
    cudaError_t e = emulate_return(cudaSuccess);
    if (e != cudaSuccess) return e;
    emulate_prepare();
    *p = (T *)emulate_take(emulate_device, bytes);
    if (*p) emulate_owner[*p] = emulate_present;
    return *p ? cudaSuccess : emulate_return(cudaErrorMemoryAllocation);
}

/* CUDA may wait for work that uses the memory, and need not: here it does not. */
EMULATE_API cudaError_t cudaFree(void *p)
{
    if (p && !emulate_give(emulate_device, p)) return emulate_return(cudaErrorInvalidValue);
    emulate_owner.erase(p);
    return emulate_return(cudaSuccess);
}

template <class T> EMULATE_API cudaError_t cudaMallocHost(T **p, size_t bytes)
{
    *p = NULL;
    cudaError_t e = emulate_return(cudaSuccess);
    if (e == cudaSuccess) *p = (T *)malloc(bytes);
    return e;
}

EMULATE_API cudaError_t cudaFreeHost(void *p)
{
    free(p);
    return emulate_return(cudaSuccess);
}

static void emulate_check(const void *p, size_t bytes, int device, const char *what)
{
    if (emulate_within(emulate_device, p, bytes) != device)
        emulate_fail("%s: memory of the wrong side", what);
    auto piece = emulate_owner.upper_bound(p);
    if (device && piece != emulate_owner.begin()) emulate_chosen((--piece)->second, "memory");
}

static std::function<void()> emulate_moving(void *to, const void *from, size_t bytes)
{
    return [=] {
        emulate_open(emulate_device, 1);
        emulate_open(emulate_host, 1);
        memcpy(to, from, bytes);
    };
}

EMULATE_API cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, int way,
                                        cudaStream_t s)
{
    emulate_check(to, bytes, way != cudaMemcpyDeviceToHost, "copy to");
    emulate_check(from, bytes, way != cudaMemcpyHostToDevice, "copy from");
    cudaError_t e = emulate_return(cudaSuccess);
    if (e == cudaSuccess) emulate_put(s, emulate_moving(to, from, bytes));
    return e;
}

EMULATE_API cudaError_t cudaMemsetAsync(void *p, int value, size_t bytes, cudaStream_t s)
{
    emulate_check(p, bytes, 1, "set");
    cudaError_t e = emulate_return(cudaSuccess);
    if (e == cudaSuccess)
        emulate_put(s, [=] {
            emulate_open(emulate_device, 1);
            memset(p, value, bytes);
        });
    return e;
}

/* ---- graphs ---- */

enum cudaStreamCaptureMode { cudaStreamCaptureModeRelaxed = 2 };
struct cudaKernelNodeParams {
    void *func;
    dim3 gridDim, blockDim;
    unsigned sharedMemBytes;
    void **kernelParams, **extra;
};

static cudaError_t emulate_built(cudaError_t e)
{
    emulate_building++;
    e = emulate_return(e);
    emulate_building--;
    return e;
}

EMULATE_API cudaError_t cudaStreamBeginCapture(cudaStream_t s, cudaStreamCaptureMode mode)
{
    (void)mode;
    emulate_not_captured(s, "a capture");
    cudaError_t e = emulate_built(cudaSuccess);
    if (e != cudaSuccess) return e;
    s->capture = new emulate_graph;
    emulate_building++;
    return e;
}

EMULATE_API cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *g)
{
    if (!s->capture) emulate_fail("nothing is being captured");
    *g = s->capture;
    s->capture = NULL;
    emulate_building--;
    cudaError_t e = emulate_built(cudaSuccess);
    if (e == cudaSuccess) return e;
    delete *g;
    *g = NULL;
    return e;
}

EMULATE_API cudaError_t cudaGraphCreate(cudaGraph_t *g, unsigned flags)
{
    (void)flags;
    *g = NULL;
    cudaError_t e = emulate_built(cudaSuccess);
    if (e == cudaSuccess) *g = new emulate_graph;
    return e;
}

/* Each node must come behind the one before it: there is one stream's work to keep in order. */
static cudaError_t emulate_add(cudaGraphNode_t *node, cudaGraph_t g, const cudaGraphNode_t *after,
                               size_t n, int kind, const std::function<void()> &work)
{
    size_t place = g->work.size();
    if (place == 0 ? n != 0 : n != 1 || after[0] != &g->node.back())
        emulate_fail("node %zu of a graph is not behind the one before it", place);
    cudaError_t e = emulate_built(work ? cudaSuccess : cudaErrorInvalidValue);
    if (e != cudaSuccess) return e;
    g->work.push_back(work);
    g->node.push_back(emulate_node{g, place, kind});
    *node = &g->node.back();
    return e;
}

static std::function<void()> emulate_node_work(const cudaKernelNodeParams *p)
{
    return emulate_kernel_work(p->func, p->gridDim.x, p->blockDim.x, p->sharedMemBytes,
                               p->kernelParams);
}

EMULATE_API cudaError_t cudaGraphAddKernelNode(cudaGraphNode_t *node, cudaGraph_t g,
                                               const cudaGraphNode_t *after, size_t n,
                                               const cudaKernelNodeParams *p)
{
    return emulate_add(node, g, after, n, EMULATE_GRAPH_KERNEL, emulate_node_work(p));
}

EMULATE_API cudaError_t cudaGraphAddMemcpyNode1D(cudaGraphNode_t *node, cudaGraph_t g,
                                                 const cudaGraphNode_t *after, size_t n, void *to,
                                                 const void *from, size_t bytes, int way)
{
    emulate_check(to, bytes, way != cudaMemcpyDeviceToHost, "copy to");
    emulate_check(from, bytes, way != cudaMemcpyHostToDevice, "copy from");
    return emulate_add(node, g, after, n, EMULATE_GRAPH_COPY, emulate_moving(to, from, bytes));
}

EMULATE_API cudaError_t cudaGraphAddChildGraphNode(cudaGraphNode_t *node, cudaGraph_t g,
                                                   const cudaGraphNode_t *after, size_t n,
                                                   cudaGraph_t child)
{
    std::vector<std::function<void()>> work = child->work;
    return emulate_add(node, g, after, n, EMULATE_GRAPH_CHILD, [=] {
        for (auto &f : work) f();
    });
}

EMULATE_API cudaError_t cudaGraphDestroy(cudaGraph_t g)
{
    delete g;
    return emulate_built(cudaSuccess);
}

EMULATE_API cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t *x, cudaGraph_t g,
                                                      unsigned long long flags)
{
    (void)flags;
    *x = NULL;
    cudaError_t e = emulate_built(cudaSuccess);
    if (e == cudaSuccess) *x = new emulate_executable{g, g->work, 0};
    return e;
}

/* What is on its way keeps what it was launched with. */
static cudaError_t emulate_change(cudaGraphExec_t x, cudaGraphNode_t node, int kind,
                                  const std::function<void()> &work)
{
    if (node->graph != x->graph || node->kind != kind) emulate_fail("a node of another graph");
    emulate_changes++;
    cudaError_t e = emulate_built(work ? cudaSuccess : cudaErrorInvalidValue);
    if (e == cudaSuccess) x->work[node->place] = work;
    return e;
}

EMULATE_API cudaError_t cudaGraphExecKernelNodeSetParams(cudaGraphExec_t x, cudaGraphNode_t node,
                                                         const cudaKernelNodeParams *p)
{
    return emulate_change(x, node, EMULATE_GRAPH_KERNEL, emulate_node_work(p));
}

EMULATE_API cudaError_t cudaGraphExecMemcpyNodeSetParams1D(cudaGraphExec_t x, cudaGraphNode_t node,
                                                           void *to, const void *from,
                                                           size_t bytes, int way)
{
    emulate_check(to, bytes, way != cudaMemcpyDeviceToHost, "copy to");
    emulate_check(from, bytes, way != cudaMemcpyHostToDevice, "copy from");
    return emulate_change(x, node, EMULATE_GRAPH_COPY, emulate_moving(to, from, bytes));
}

EMULATE_API cudaError_t cudaGraphLaunch(cudaGraphExec_t x, cudaStream_t s)
{
    std::vector<std::function<void()>> work = x->work;
    emulate_not_captured(s, "a graph");
    cudaError_t e = emulate_return(cudaSuccess);
    if (e != cudaSuccess) return e;
    emulate_replays++;
    x->pending++;
    emulate_put(s, [=] {
        for (auto &f : work) f();
        x->pending--;
    });
    return e;
}

EMULATE_API cudaError_t cudaGraphExecDestroy(cudaGraphExec_t x)
{
    if (x->pending) emulate_fail("a graph is destroyed while it runs");
    delete x;
    return emulate_return(cudaSuccess);
}

/* ---- cuBLAS ---- */

enum cublasStatus_t {
    CUBLAS_STATUS_SUCCESS, CUBLAS_STATUS_INVALID_VALUE = 7, CUBLAS_STATUS_INTERNAL_ERROR = 14
};
enum cublasOperation_t { CUBLAS_OP_N, CUBLAS_OP_T };
enum cublasMath_t { CUBLAS_DEFAULT_MATH, CUBLAS_TF32_TENSOR_OP_MATH = 3 };
static size_t emulate_span = 0x7fffffff; /* how far the numbers of a matrix may lie apart */
typedef struct emulate_blas { cudaStream_t stream; cublasMath_t math; int device; } *cublasHandle_t;

/* Row-major, C = alpha op(A) op(B) + beta C; beta 0: C is not read. */
template <class T> struct emulate_product {
    int ta, tb, m, n, k, lda, ldb, ldc;
    T alpha, beta;
};

template <class T>
static void emulate_multiply(const emulate_product<T> &p, const T *A, const T *B, T *C)
{
    std::vector<T> row((size_t)p.n);
    for (int i = 0; i < p.m; i++) {
        for (int j = 0; j < p.n; j++) row[(size_t)j] = 0;
        for (int k = 0; k < p.k; k++) {
            size_t down = (size_t)(p.ta ? k : i), across = (size_t)(p.ta ? i : k);
            T a = A[down * (size_t)p.lda + across];
            const T *b = p.tb ? B + k : B + (size_t)k * (size_t)p.ldb;
            size_t step = p.tb ? (size_t)p.ldb : 1;
            for (size_t j = 0; j < (size_t)p.n; j++) row[j] += a * b[j * step];
        }
        T *c = C + (size_t)i * (size_t)p.ldc;
        for (int j = 0; j < p.n; j++) {
            T v = p.alpha * row[(size_t)j];
            c[j] = p.beta != 0 ? v + p.beta * c[j] : v;
        }
    }
}

static cublasStatus_t emulate_status(void)
{
    return emulate_return(cudaSuccess) == cudaSuccess ? CUBLAS_STATUS_SUCCESS
                                                      : CUBLAS_STATUS_INTERNAL_ERROR;
}

EMULATE_API const char *cublasGetStatusString(cublasStatus_t s)
{
    return s == CUBLAS_STATUS_INVALID_VALUE ? "CUBLAS_STATUS_INVALID_VALUE"
                                            : "CUBLAS_STATUS_INTERNAL_ERROR";
}

EMULATE_API cublasStatus_t cublasCreate(cublasHandle_t *h)
{
    *h = NULL;
    cublasStatus_t s = emulate_status();
    if (s != CUBLAS_STATUS_SUCCESS) return s;
    *h = new emulate_blas();
    (*h)->device = emulate_present;
    return s;
}

EMULATE_API cublasStatus_t cublasDestroy(cublasHandle_t h)
{
    delete h;
    return emulate_status();
}

EMULATE_API cublasStatus_t cublasSetStream(cublasHandle_t h, cudaStream_t s)
{
    h->stream = s;
    return emulate_status();
}

EMULATE_API cublasStatus_t cublasSetMathMode(cublasHandle_t h, cublasMath_t math)
{
    h->math = math;
    return emulate_status();
}

EMULATE_API cublasStatus_t cublasSetWorkspace(cublasHandle_t h, void *p, size_t bytes)
{
    (void)h;
    emulate_check(p, bytes, 1, "workspace");
    return emulate_status();
}

/* A matrix that cuBLAS may get wrong: too far from its first number to its last. A row that is
   longer than that cannot be helped. */
static void emulate_reach(const char *what, int rows, int length, int ld)
{
    size_t far = (size_t)ld;
    if (far <= emulate_span && (size_t)(rows - 1) * far + (size_t)length > emulate_span)
        emulate_fail("cuBLAS's %s: %d rows, %d apart, reach too far", what, rows, ld);
}

/* Columns come first: C' = B' A', so the operands change places. */
template <class T>
static cublasStatus_t emulate_gemm(cublasHandle_t h, cublasOperation_t ta, cublasOperation_t tb,
                                   int m, int n, int k, const T *alpha, const T *A, int lda,
                                   long long sa, const T *B, int ldb, long long sb, const T *beta,
                                   T *C, int ldc, long long sc, int batch)
{
    emulate_product<T> p = {tb == CUBLAS_OP_T, ta == CUBLAS_OP_T, n, m, k, ldb, lda, ldc, *alpha,
                            *beta};
    if (m < 0 || n < 0 || k < 0 || batch < 0 || lda < (p.tb ? k : m) || ldb < (p.ta ? n : k) ||
        ldc < m || (batch > 1 && sc == 0))
        return CUBLAS_STATUS_INVALID_VALUE;
    emulate_chosen(h->device, "cuBLAS");
    emulate_reach("B", p.tb ? p.n : p.k, p.tb ? p.k : p.n, p.ldb);
    emulate_reach("A", p.ta ? p.k : p.m, p.ta ? p.m : p.k, p.lda);
    emulate_reach("C", p.m, p.n, p.ldc);
    emulate_check(A, 1, 1, "cuBLAS's A");
    emulate_check(B, 1, 1, "cuBLAS's B");
    emulate_check(C, 1, 1, "cuBLAS's C");
    cublasStatus_t s = emulate_status();
    if (s == CUBLAS_STATUS_SUCCESS)
        emulate_put(h->stream, [=] {
            emulate_open(emulate_device, 1);
            for (int b = 0; b < batch; b++) emulate_multiply(p, B + b * sb, A + b * sa, C + b * sc);
        });
    return s;
}

#define EMULATE_GEMM(name, T)                                                                      \
    EMULATE_API cublasStatus_t name(cublasHandle_t h, cublasOperation_t ta, cublasOperation_t tb,  \
                                    int m, int n, int k, const T *alpha, const T *A, int lda,      \
                                    const T *B, int ldb, const T *beta, T *C, int ldc)             \
    {                                                                                              \
        return emulate_gemm(h, ta, tb, m, n, k, alpha, A, lda, 0, B, ldb, 0, beta, C, ldc, 0, 1);  \
    }                                                                                              \
    EMULATE_API cublasStatus_t name##StridedBatched(                                               \
        cublasHandle_t h, cublasOperation_t ta, cublasOperation_t tb, int m, int n, int k,         \
        const T *alpha, const T *A, int lda, long long sa, const T *B, int ldb, long long sb,      \
        const T *beta, T *C, int ldc, long long sc, int batch)                                     \
    {                                                                                              \
        return emulate_gemm(h, ta, tb, m, n, k, alpha, A, lda, sa, B, ldb, sb, beta, C, ldc, sc,   \
                            batch);                                                                \
    }
EMULATE_GEMM(cublasSgemm, float)
EMULATE_GEMM(cublasDgemm, double)

#endif
