/* eqnn.h - v0.1 - equivariant neural networks in one C header - licence at the end of this file

   A complete program (build: cc -O2 first.c -lm):

      #define EQNN_IMPLEMENTATION
      #include "eqnn.h"

      static eqnn_tensor *net(eqnn_tensor *const *x, int n, void *user)
      {
          eqnn_network_opts o = { .hidden = "8x0e+8x1o", .out = "1x1o", .radius = 3 };
          return eqnn_network(NULL, NULL, x[0], eqnn_radius_graph(x[0], 3, NULL), "net", &o);
      }
      int main(void)
      {
          eqnn_ctx *c = eqnn_make(NULL);
          eqnn_tensor *pos = eqnn_as(eqnn_normal(c, "pos", 5, 3), eqnn_irreps_make(c, "1x1o"));
          eqnn_print(net(&pos, 1, NULL), "a vector for each of five atoms", stdout);
          double error = eqnn_check_equivariance(net, &pos, 1, NULL, 10, NULL);
          printf("turned by R: |f(R x) - R f(x)| < %.1e |f|\n", error);
      }

   It prints five vectors and a number near 1e-6: the network, its weights still random, commutes
   with every rotation and reflection up to rounding: nothing else can be built from these layers.

   OPTIONS       Macros, defined before the header is included. EQNN_DOUBLE must be the same in
                 every file of a program; the others matter where EQNN_IMPLEMENTATION is defined.

      EQNN_IMPLEMENTATION   emits the code: in one C or C++ file (with EQNN_STATIC in any)
      EQNN_STATIC           everything is private to this file                     default off
      EQNN_DOUBLE           eqnn_real is double; files that differ do not link     default float
      EQNN_STRICT           the same bits on every machine: no contraction of
                            a*b+c, our own elementary functions; slower (but for
                            truncated normal weights, whose erfc is libm's)        default off
      EQNN_CBLAS            large matrix products go to a BLAS, which you link     default our own
      EQNN_NO_VECTORS       plain loops instead of the compiler's vector types     default off
      EQNN_ASSERT(x)        checks of our own mistakes, for example assert         default nothing
      EQNN_FILE             the name of this file, if you rename it                "eqnn.h"
      -fopenmp              a flag of the compiler: kernels use all cores          default one

   IS / IS NOT   It builds, differentiates (to any order), trains, saves and runs networks whose
                 outputs turn with their inputs: O(3) irreps as e3nn has them, graphs, models of the
                 papers. It needs libc and libm. It never prints, exits or aborts, and reads and
                 writes no file but those you name. It leaves to you: data, plots, the training
                 loop, and threads beyond OpenMP (one context per thread).

   CONVENTIONS   Tensors are row-major matrices: rows are things (atoms, edges), columns features.
                 Axes are x, y, z, right-handed; rotations act on column vectors; angles are in
                 radians; units are yours. Edges lead from source to target, and an edge's vector
                 is pos[source] - pos[target].
                 Irreps: "16x0e+8x1o" is 16 scalars and 8 vectors; e and o say what inversion does:
                 nothing, or change of sign. A vector's components are x, y, z; degree l has 2l+1,
                 m = -l..l about the y axis, as in e3nn. Within a block channels run fastest:

                    one row of "2x0e+2x1o":   | s0 s1 | x0 x1  y0 y1  z0 z1 |

                 e3nn has | s0 s1 | x0 y0 z0  x1 y1 z1 |: eqnn_from_e3nn, eqnn_to_e3nn convert.
                 Weights keep e3nn's order, names and normalisation, so its state_dicts load as
                 they are: features have variance 1 per component, products and linear maps are
                 divided by the root of their fan-in, activations by their second moment.
                 Harmonics are "component" normalised: sum over m of Y_lm^2 = 2l+1 on the sphere.

   ERRORS        A failed call returns NULL and leaves a sentence in the context: eqnn_error(c).
                 NULL in gives NULL out, so write whole expressions and look once a step.

   COST          Forward, for N rows (nodes) or E edges with C channels; "keeps" was measured: the
                 numbers that stay in the step's memory until the backward pass, the result
                 included. Multiply-adds follow from the formulas; for functions of a number they
                 are rough. A backward pass takes two to three times as many, a step with energies
                 and forces 3 to 4 times the step with energies alone (measured: 3.4), a
                 checkpointed block one forward pass more; it keeps its arguments and results only.

      layer                          multiply-adds                          keeps
      linear, k to n columns         N k n                                  2 N n
      silu, tanh, ... (a map)        10 to 20 a number                      1 a number
      layer and batch norm           8 a number                             5; of irreps 3 a number
      spherical harmonics to L       3 to 5 (L+1)^2 an edge                 (L+1)^2 + 8 an edge
      radial basis, n functions      12 n an edge                           5 n an edge
      irreps_linear                  N sum over l of (2l+1) C_in C_out      1 a number
      tensor_product, channelwise    a row: entries of 3j tensors, and      result and a copy of the
                                     C (2l1+1) (2l3+1) for each path        weights
      fully connected, C1 C2 to C3   a row and path: C1 C2 (2l1+1) (2l3+1)  result; C1 C2 (2l3+1)
                                     + C1 C2 C3 (2l3+1)                     for each path
      message (weights h V,          an edge: as the product, and for       result at the nodes,
      h of H numbers)                its W weights H W                      nothing for an edge
      scatter, take                  none; 1 addition a number              result
      segment_softmax                20 a number                            1 a number
      s2_activation, G points        2 G (lmax+1)^2 C a row                 3 G C a row, 3 a number
      symmetric_contraction          C times the records of U, a node       60 C (3 factors, l <= 2)

                 Example: a gated convolution of 32x0e+32x1o+32x2e with 20 edges a node and
                 harmonics to l = 2 keeps 6,840 numbers a node; a weight for every edge and path
                 would be 7,040 more.

   CONTENTS      Manual, declarations and implementation go through the same sections in the same
                 order, each resting only on those before it. Search for the tag to jump.

      1  >>configuration   The scalar type, where symbols go, what is used of the compiler.
      2  >>context         Memory, tape, parameters and the first error live in an eqnn_ctx. What a
                           step makes is gone after eqnn_reset; what lasts is freed with it.
      3  >>tensors         Matrices that know their context and how their columns transform (label).
      4  >>kernels         The table of functions between mathematics and machine, with loops that
                           are compiled once per instruction set. Nothing above it touches raw
                           memory. (No declarations.)
      5  >>tape            eqnn_grad gives a gradient that can be differentiated again;
                           eqnn_backward fills the gradients of parameters; checkpoints; your own
                           operations; a checker of derivatives.
      6  >>operations      Sums, products, functions of a number, rows by index, softmax, losses.
                           A side of length 1 stretches; there is no other broadcasting.
      7  >>parameters      A weight comes into being at the first call that names it. Scopes,
                           freezing, a summary, safetensors files, checkpoints that resume exactly.
      8  >>layers          Linear, MLP, embedding, layer and batch norm.
      9  >>training        Adam, SGD, schedules, averages of weights, gradients summed over ranks;
                           integrators: solutions of differential equations, differentiable.
      10 >>irreps          Irreps strings, rotations, Wigner matrices, 3j tensors, and a checker of
                           equivariance for whatever you build.
      11 >>equivariant     Spherical harmonics, radial functions, tensor products, messages along
                           edges, symmetric and Cartesian tensors, MACE's contraction, linear maps,
                           gates, grids on the sphere: what commutes with rotations.
      12 >>graphs          Radius, nearest neighbour and complete graphs and given edges, many
                           examples in one graph, sums at nodes.
      13 >>models          Networks of the papers, with the names of their state_dicts. */

#ifndef EQNN__KERNEL_PASS
#ifndef EQNN_H
#define EQNN_H

/* ----------------------------------------------------------------------------------------------
   1 >>configuration   What the build chooses: the scalar type, where symbols go, which helpers of
                       the compiler are used.
   ---------------------------------------------------------------------------------------------- */

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define EQNN_VERSION "0.1"

#ifdef __cplusplus
#define EQNN__C extern "C"
#else
#define EQNN__C extern
#endif
#ifdef EQNN_STATIC
#define EQNN_API static EQNN__MAYBE_UNUSED
#else
#define EQNN_API EQNN__C
#endif

#if defined(__GNUC__) || defined(__clang__)
#define EQNN__MAYBE_UNUSED __attribute__((unused))
#define EQNN__PRINTF(f, a) __attribute__((format(printf, f, a)))
#else
#define EQNN__MAYBE_UNUSED
#define EQNN__PRINTF(f, a)
#endif

#ifdef EQNN_DOUBLE
typedef double eqnn_real;
#define eqnn_make eqnn_make_f64 /* two files built with different types do not link */
#else
typedef float eqnn_real;
#define eqnn_make eqnn_make_f32
#endif

/* ----------------------------------------------------------------------------------------------
   2 >>context   Everything lives in a context: memory, the tape, parameters, the first error. One
                 context per thread; nothing global.
   ---------------------------------------------------------------------------------------------- */

typedef struct eqnn_ctx eqnn_ctx;
typedef struct eqnn_tensor eqnn_tensor;

/* The caller's allocator: like realloc, told the old size; size 0 frees and returns NULL. */
typedef void *(*eqnn_alloc)(void *user, void *old, size_t old_size, size_t new_size);

typedef struct eqnn_opts {
    uint64_t seed;        /* of every random number; default 0                                    */
    int threads;          /* default all that OpenMP offers; 1 without OpenMP                     */
    int lanes;            /* 16, 8, 4 floats a vector or 1 (plain loops); default the widest here */
    eqnn_alloc alloc;     /* default malloc and free                                              */
    void *alloc_user;     /* handed to alloc                                                      */
    void *buffer;         /* all memory comes from here and nothing from alloc; default none      */
    size_t buffer_size;   /* its size in bytes                                                    */
    eqnn_ctx *weights_of; /* a worker: reads this context's parameters; default its own           */
} eqnn_opts;

/* A new context, or NULL when there is no memory for it. */
EQNN_API eqnn_ctx *eqnn_make(const eqnn_opts *opts);
EQNN_API void eqnn_free(eqnn_ctx *c);

/* The first thing that went wrong, as a sentence, or NULL. Until eqnn_clear every operation returns
   NULL at once, and steps and saves do nothing. */
EQNN_API const char *eqnn_error(const eqnn_ctx *c);
EQNN_API void eqnn_clear(eqnn_ctx *c);
/* Records an error of your own layer (only the first is kept); returns NULL. */
EQNN_API eqnn_tensor *eqnn_fail(eqnn_ctx *c, const char *format, ...) EQNN__PRINTF(2, 3);

/* Ends a step: its tensors are gone, parameters stay, the tick of random numbers advances. */
EQNN_API void eqnn_reset(eqnn_ctx *c);
EQNN_API void eqnn_tick(eqnn_ctx *c); /* new random numbers without a reset */

typedef struct eqnn_mark {
    eqnn_ctx *ctx;
    size_t chunk, used, headers, nodes;
    int updates;
} eqnn_mark;
/* Forgets everything made since the mark except y, which is moved down and becomes a constant. */
EQNN_API eqnn_mark eqnn_mark_make(eqnn_ctx *c);
EQNN_API eqnn_tensor *eqnn_rewind(eqnn_mark mark, eqnn_tensor *y);

/* Training (dropout on, batch statistics used) is off, recording (the tape) on at first. Both
   return the old setting. */
EQNN_API int eqnn_training(eqnn_ctx *c, int on);
EQNN_API int eqnn_recording(eqnn_ctx *c, int on);

typedef struct eqnn_memory {
    size_t step, step_peak, step_reserved, lasting, tape_nodes;
} eqnn_memory;
EQNN_API eqnn_memory eqnn_memory_use(const eqnn_ctx *c); /* bytes */

/* printf into the step's memory: for names made in loops. */
EQNN_API const char *eqnn_format(eqnn_ctx *c, const char *format, ...) EQNN__PRINTF(2, 3);
/* n random numbers that depend on seed, scope, name and tick only: uniform in [0,1), or N(0,1). */
EQNN_API void eqnn_random(eqnn_ctx *c, const char *name, int normal, size_t n, double *out);
EQNN_API uint64_t eqnn_seed(const eqnn_ctx *c);

/* ----------------------------------------------------------------------------------------------
   3 >>tensors   Matrices that know what they are: rows are things, columns are features, and a
                 label says how the columns turn when the world turns. Integers are eqnn_ints.
   ---------------------------------------------------------------------------------------------- */

enum { EQNN_TYPE_IRREP = 1, EQNN_TYPE_REP, EQNN_TYPE_FRAME };

/* One kind of object that columns may form: for O(3) an irrep (l, p). */
typedef struct eqnn_type {
    int kind;          /* EQNN_TYPE_...                                           */
    int l, p;          /* irreps: degree and parity (+1 e, -1 o); of a matrix
                          group: factors, 1 when it permutes the components      */
    int dim;           /* components                                              */
    const char *name;  /* "1o"                                                    */
    const void *user;  /* what other kinds need                                   */
} eqnn_type;

typedef struct eqnn_block {
    int copies; /* channels */
    const eqnn_type *type;
    int start; /* first column; component m of channel u is start + m * copies + u */
} eqnn_block;

/* A label is a list of blocks, interned: equal content, equal pointer (in one context). */
typedef struct eqnn_label {
    int blocks, cols, copies;  /* blocks, columns, copies in all */
    const eqnn_block *block;
    const char *name;          /* "16x0e+8x1o"                   */
} eqnn_label;
typedef eqnn_label eqnn_irreps;

typedef struct eqnn_ints eqnn_ints; /* integers on the context: indices, species, columns */

/* copies */
EQNN_API eqnn_tensor *eqnn_from(eqnn_ctx *c, int rows, int cols, const eqnn_real *values);
EQNN_API eqnn_tensor *eqnn_from_double(eqnn_ctx *c, int rows, int cols, const double *values);
EQNN_API eqnn_tensor *eqnn_full(eqnn_ctx *c, int rows, int cols, double value);
EQNN_API eqnn_tensor *eqnn_zeros(eqnn_ctx *c, int rows, int cols);
EQNN_API eqnn_tensor *eqnn_normal(eqnn_ctx *c, const char *name, int rows, int cols);  /* N(0,1)  */
EQNN_API eqnn_tensor *eqnn_uniform(eqnn_ctx *c, const char *name, int rows, int cols); /* [0,1)   */
/* A constant copy; eqnn_keep's outlasts resets (and is never freed before the context). */
EQNN_API eqnn_tensor *eqnn_detach(eqnn_tensor *x);
EQNN_API eqnn_tensor *eqnn_keep(eqnn_tensor *x);

EQNN_API int eqnn_rows(const eqnn_tensor *x); /* 0 of NULL */
EQNN_API int eqnn_cols(const eqnn_tensor *x);
EQNN_API const eqnn_real *eqnn_data(const eqnn_tensor *x);
EQNN_API eqnn_ctx *eqnn_context(const eqnn_tensor *x);
EQNN_API double eqnn_value(const eqnn_tensor *x); /* of a [1,1] tensor; NaN of NULL */
EQNN_API double eqnn_at(const eqnn_tensor *x, int row, int col);
EQNN_API int eqnn_read(const eqnn_tensor *x, eqnn_real *out); /* copies all; 0 when there is none */
EQNN_API const eqnn_label *eqnn_label_of(const eqnn_tensor *x);
/* The same numbers under another label of the same width; NULL: invariant numbers. */
EQNN_API eqnn_tensor *eqnn_as(eqnn_tensor *x, const eqnn_label *label);
/* Prints at most 8 rows and 12 columns. */
EQNN_API void eqnn_print(const eqnn_tensor *x, const char *title, FILE *file);

/* count integers, each 0 <= value < range (checked; range 0: anything). Copied into the step's
   memory, or into the context's when keep is set. */
EQNN_API eqnn_ints *eqnn_ints_make(eqnn_ctx *c, int count, const int *values, int range, int keep);
EQNN_API int eqnn_ints_count(const eqnn_ints *i);
EQNN_API const int *eqnn_ints_data(const eqnn_ints *i);

/* ----------------------------------------------------------------------------------------------
   5 >>tape   What was computed, so that it can be differentiated: to any order, because every rule
              is written in operations.
   ---------------------------------------------------------------------------------------------- */

/* dy/dx for y [1,1]: recorded, so it can be differentiated again. Zeros when y does not depend
   on x. */
EQNN_API eqnn_tensor *eqnn_grad(eqnn_tensor *y, eqnn_tensor *x);
EQNN_API int eqnn_grads(eqnn_tensor *y, eqnn_tensor *const *x, int n, eqnn_tensor **dx);
/* The same for any y with the cotangent g (the size of y). */
EQNN_API eqnn_tensor *eqnn_vjp(eqnn_tensor *y, eqnn_tensor *g, eqnn_tensor *x);
EQNN_API int eqnn_vjps(eqnn_tensor *y, eqnn_tensor *g, eqnn_tensor *const *x, int n,
                       eqnn_tensor **dx);
/* Adds dy/dw to the gradient of every parameter w. Unrecorded; several times a step if need be. */
EQNN_API int eqnn_backward(eqnn_tensor *y);

/* A block that is recomputed in backward instead of remembered. f must depend only on x[], user and
   parameters. Its rule is a checkpoint again, so it may stand inside forces. */
typedef eqnn_tensor *(*eqnn_function)(eqnn_tensor *const *x, int n, void *user);
EQNN_API eqnn_tensor *eqnn_checkpoint(eqnn_function f, eqnn_tensor *const *x, int n,
                                      const void *user, size_t user_size);

/* Your own operation: value computes from x[], rule returns in dx[i] the cotangent of x[i] given g,
   written in operations (want[i] says which are needed; others may stay NULL). user is copied. */
typedef struct eqnn_custom_op {
    const char *name;
    eqnn_tensor *(*value)(eqnn_tensor *const *x, int n, void *user);
    int (*rule)(eqnn_tensor *const *x, int n, eqnn_tensor *y, eqnn_tensor *g, const int *want,
                eqnn_tensor **dx, void *user);
} eqnn_custom_op;
EQNN_API eqnn_tensor *eqnn_custom(const eqnn_custom_op *op, eqnn_tensor *const *x, int n,
                                  const void *user, size_t user_size);

/* Checkers, for your own layers too. f maps x[] to one tensor; each derivative along random
   directions is compared with central differences of step h (0: chosen by the type and order).
   Returns the largest relative error over the inputs, for order 1, or 1 and 2. */
EQNN_API double eqnn_check_derivatives(eqnn_function f, eqnn_tensor *const *x, int n, void *user,
                                       int order, double h);

/* ----------------------------------------------------------------------------------------------
   6 >>operations   What one computes with. A side of length 1 stretches; there are no other
                    broadcast rules. Every operation can be differentiated to any order.
   ---------------------------------------------------------------------------------------------- */

/* Functions of one number: y = f(x), elementwise; x must be invariant (no label but 0e). */
typedef enum eqnn_act {
    EQNN_IDENTITY, EQNN_EXP, EQNN_LOG, EQNN_SIN, EQNN_COS, EQNN_TANH, EQNN_SIGMOID, EQNN_SILU,
    EQNN_SOFTPLUS, EQNN_SSP,         /* softplus, softplus - ln 2                               */
    EQNN_GELU, EQNN_ERF,             /* gelu in the erf form                                    */
    EQNN_RELU, EQNN_ABS, EQNN_STEP,  /* zero slope at 0; step(0) = 0                            */
    EQNN_LEAKY_RELU,                 /* p = slope below 0                                       */
    EQNN_ELU,                        /* p = depth, usually 1                                    */
    EQNN_POW,                        /* p = exponent; 0 where undefined (0^-1, (-1)^0.5) [1]    */
    EQNN_SUS,                        /* soft unit step: exp(-1/x) for x > 0, else 0             */
    EQNN_SINC,                       /* sin(x)/x                                                */
    EQNN_SINC_ROOT,                  /* sin(sqrt x)/sqrt x: of rotations, smooth at 0           */
    EQNN_COSINE_CUTOFF,              /* 1 below 1/2, (1 - cos(2 pi (x-1)))/2 to 1, then 0       */
    EQNN_POLY_CUTOFF,                /* p = order; Gasteiger et al. 2020, eq. 8; 0 from 1 on    */
    EQNN_COSINE_BUMP,                /* cos(pi x/2) for |x| < 1, else 0                         */
    EQNN_ARC                         /* acos(x)/sqrt(1 - x^2) for 0 <= x <= 1, smooth at 1       */
} eqnn_act;
/* [1] so that a norm has a value and a gradient (zero) at the zero vector. */

/* the order-th derivative of f */
EQNN_API eqnn_tensor *eqnn_map(eqnn_tensor *x, eqnn_act f, double p, int order);
EQNN_API eqnn_act eqnn_act_find(eqnn_ctx *c, const char *name); /* "silu"; an error when unknown */

EQNN_API eqnn_tensor *eqnn_exp(eqnn_tensor *x);
EQNN_API eqnn_tensor *eqnn_log(eqnn_tensor *x);
EQNN_API eqnn_tensor *eqnn_sqrt(eqnn_tensor *x);
EQNN_API eqnn_tensor *eqnn_rsqrt(eqnn_tensor *x);
EQNN_API eqnn_tensor *eqnn_reciprocal(eqnn_tensor *x);
EQNN_API eqnn_tensor *eqnn_square(eqnn_tensor *x);
EQNN_API eqnn_tensor *eqnn_pow(eqnn_tensor *x, double exponent);
EQNN_API eqnn_tensor *eqnn_sin(eqnn_tensor *x);
EQNN_API eqnn_tensor *eqnn_cos(eqnn_tensor *x);
EQNN_API eqnn_tensor *eqnn_tanh(eqnn_tensor *x);
EQNN_API eqnn_tensor *eqnn_sigmoid(eqnn_tensor *x);
EQNN_API eqnn_tensor *eqnn_silu(eqnn_tensor *x);
EQNN_API eqnn_tensor *eqnn_relu(eqnn_tensor *x);
EQNN_API eqnn_tensor *eqnn_leaky_relu(eqnn_tensor *x, double slope);
EQNN_API eqnn_tensor *eqnn_gelu(eqnn_tensor *x);
EQNN_API eqnn_tensor *eqnn_erf(eqnn_tensor *x);
EQNN_API eqnn_tensor *eqnn_softplus(eqnn_tensor *x);
EQNN_API eqnn_tensor *eqnn_elu(eqnn_tensor *x);
EQNN_API eqnn_tensor *eqnn_abs(eqnn_tensor *x);

EQNN_API eqnn_tensor *eqnn_add(eqnn_tensor *a, eqnn_tensor *b);
EQNN_API eqnn_tensor *eqnn_sub(eqnn_tensor *a, eqnn_tensor *b);
EQNN_API eqnn_tensor *eqnn_mul(eqnn_tensor *a, eqnn_tensor *b);
EQNN_API eqnn_tensor *eqnn_div(eqnn_tensor *a, eqnn_tensor *b);
EQNN_API eqnn_tensor *eqnn_scale(eqnn_tensor *a, double s);
EQNN_API eqnn_tensor *eqnn_shift(eqnn_tensor *a, double s);  /* a + s */
EQNN_API eqnn_tensor *eqnn_neg(eqnn_tensor *a);
EQNN_API eqnn_tensor *eqnn_affine(eqnn_tensor *x, eqnn_tensor *a, eqnn_tensor *b); /* a x + b */
EQNN_API eqnn_tensor *eqnn_atan2(eqnn_tensor *y, eqnn_tensor *x); /* zero gradient at the origin */
/* 1 where a < b, else 0; constant */
EQNN_API eqnn_tensor *eqnn_less(eqnn_tensor *a, eqnn_tensor *b);
EQNN_API eqnn_tensor *eqnn_equal(eqnn_tensor *a, eqnn_tensor *b);
/* c != 0 ? a : b */
EQNN_API eqnn_tensor *eqnn_where(eqnn_tensor *c, eqnn_tensor *a, eqnn_tensor *b);
EQNN_API eqnn_tensor *eqnn_min(eqnn_tensor *a, eqnn_tensor *b);
EQNN_API eqnn_tensor *eqnn_max(eqnn_tensor *a, eqnn_tensor *b);
EQNN_API eqnn_tensor *eqnn_clamp(eqnn_tensor *x, double low, double high);

/* op(a) op(b), op transposing where asked: [m,k] x [k,n] */
EQNN_API eqnn_tensor *eqnn_matmul(eqnn_tensor *a, eqnn_tensor *b);
EQNN_API eqnn_tensor *eqnn_matmul_t(eqnn_tensor *a, eqnn_tensor *b, int transpose_a,
                                    int transpose_b);
EQNN_API eqnn_tensor *eqnn_transpose(eqnn_tensor *x);
EQNN_API eqnn_tensor *eqnn_reshape(eqnn_tensor *x, int rows, int cols); /* no copy */
EQNN_API eqnn_tensor *eqnn_stretch(eqnn_tensor *x, int rows, int cols); /* sides of length 1 */

EQNN_API eqnn_tensor *eqnn_sum(eqnn_tensor *x);        /* [1,1] */
EQNN_API eqnn_tensor *eqnn_mean(eqnn_tensor *x);
EQNN_API eqnn_tensor *eqnn_sum_rows(eqnn_tensor *x);   /* [1,cols]: over rows     */
EQNN_API eqnn_tensor *eqnn_sum_cols(eqnn_tensor *x);   /* [rows,1]: over columns  */
EQNN_API eqnn_tensor *eqnn_mean_rows(eqnn_tensor *x);
EQNN_API eqnn_tensor *eqnn_mean_cols(eqnn_tensor *x);
EQNN_API eqnn_tensor *eqnn_max_rows(eqnn_tensor *x);   /* the first of equals gets the gradient */
EQNN_API eqnn_tensor *eqnn_max_cols(eqnn_tensor *x);

/* Rows by index: y[r] = x[index[r]]; its adjoint y[index[r]] += x[r], y has the index's range. */
EQNN_API eqnn_tensor *eqnn_take(eqnn_tensor *x, eqnn_ints *index);
EQNN_API eqnn_tensor *eqnn_collect(eqnn_tensor *x, eqnn_ints *index);
EQNN_API eqnn_tensor *eqnn_segment_sum(eqnn_tensor *x, eqnn_ints *segment);  /* = collect */
EQNN_API eqnn_tensor *eqnn_segment_mean(eqnn_tensor *x, eqnn_ints *segment); /* 0 for empty ones */
EQNN_API eqnn_tensor *eqnn_segment_max(eqnn_tensor *x, eqnn_ints *segment);  /* 0 for empty ones */
/* Columns by index: y[:,c] = x[:,index[c]] (no labels), and its adjoint. */
EQNN_API eqnn_tensor *eqnn_columns(eqnn_tensor *x, eqnn_ints *index);
EQNN_API eqnn_tensor *eqnn_collect_columns(eqnn_tensor *x, eqnn_ints *index);
/* One entry per row: y[r] = x[r, index[r]]; and its adjoint into cols columns. */
EQNN_API eqnn_tensor *eqnn_pick(eqnn_tensor *x, eqnn_ints *index);
EQNN_API eqnn_tensor *eqnn_put(eqnn_tensor *x, eqnn_ints *index, int cols);

EQNN_API eqnn_tensor *eqnn_softmax(eqnn_tensor *x); /* over columns */
EQNN_API eqnn_tensor *eqnn_logsumexp(eqnn_tensor *x); /* [rows,1] */
/* over each segment's rows */
EQNN_API eqnn_tensor *eqnn_segment_softmax(eqnn_tensor *x, eqnn_ints *segment);
EQNN_API eqnn_tensor *eqnn_argmax(eqnn_tensor *x); /* [rows,1], a constant */

EQNN_API eqnn_tensor *eqnn_concat(eqnn_tensor *a, eqnn_tensor *b); /* columns side by side */
EQNN_API eqnn_tensor *eqnn_concat_n(eqnn_tensor *const *x, int n);
EQNN_API eqnn_tensor *eqnn_stack(eqnn_tensor *const *x, int n); /* rows on top of rows */
EQNN_API eqnn_tensor *eqnn_slice(eqnn_tensor *x, int first_col, int cols); /* on block borders */
EQNN_API eqnn_tensor *eqnn_slice_rows(eqnn_tensor *x, int first_row, int rows);
EQNN_API eqnn_tensor *eqnn_repeat(eqnn_tensor *x, int times); /* every row times over */

/* |x_r| of each row [rows,1]; value 0 and gradient 0 at the zero row. Labels of one copy of one
   type, or none. */
EQNN_API eqnn_tensor *eqnn_norm(eqnn_tensor *x);
/* only when training */
EQNN_API eqnn_tensor *eqnn_dropout(eqnn_tensor *x, const char *name, double p);

EQNN_API eqnn_tensor *eqnn_mse(eqnn_tensor *x, eqnn_tensor *target);
EQNN_API eqnn_tensor *eqnn_mae(eqnn_tensor *x, eqnn_tensor *target);
EQNN_API eqnn_tensor *eqnn_huber(eqnn_tensor *x, eqnn_tensor *target, double delta);
/* mean over rows */
EQNN_API eqnn_tensor *eqnn_cross_entropy(eqnn_tensor *logits, eqnn_ints *classes);

/* ----------------------------------------------------------------------------------------------
   7 >>parameters   Weights come into being at the first call, under the name given, and are found
                    by that name afterwards. Scopes nest names with dots, as PyTorch's state_dict.
   ---------------------------------------------------------------------------------------------- */

typedef enum eqnn_init_kind {
    EQNN_INIT_NORMAL,          /* N(0, scale^2); the default: e3nn's                              */
    EQNN_INIT_ZEROS, EQNN_INIT_ONES,  /* ones: all scale                                          */
    EQNN_INIT_UNIFORM,         /* [-scale, scale)                                                 */
    EQNN_INIT_TORCH,           /* uniform +-scale/sqrt(fan_in): torch.nn.Linear                   */
    EQNN_INIT_GLOROT_UNIFORM, EQNN_INIT_GLOROT_NORMAL,   /* xavier                                */
    EQNN_INIT_HE_UNIFORM, EQNN_INIT_HE_NORMAL,           /* kaiming                               */
    EQNN_INIT_LECUN_NORMAL,                              /* JAX's default: truncated normal       */
    EQNN_INIT_ORTHOGONAL
} eqnn_init_kind;

typedef struct eqnn_init {
    eqnn_init_kind kind;
    double scale;        /* default 1                                                        */
    int fan_in, fan_out; /* default cols and rows of the parameter ([out, in])               */
} eqnn_init;

/* Scopes: x = eqnn_enter(x, "conv1"); ...; return eqnn_leave(y). The empty name adds nothing. */
EQNN_API eqnn_tensor *eqnn_enter(eqnn_tensor *x, const char *name);
EQNN_API eqnn_tensor *eqnn_leave(eqnn_tensor *y);
/* The parameter of that name in the present scope, made at the first call; its first numbers depend
   on the seed and the full name only. One row is saved as a vector. init NULL: N(0,1). */
EQNN_API eqnn_tensor *eqnn_param(eqnn_ctx *c, const char *name, int rows, int cols,
                                 const eqnn_init *init);
/* The same for numbers that are not trained (running statistics): saved, no gradient; first 0. */
EQNN_API eqnn_tensor *eqnn_buffer(eqnn_ctx *c, const char *name, int rows, int cols,
                                  const eqnn_init *init);
/* Files an update buffer <- (1 - momentum) buffer + momentum value, applied by the optimizer step
   or eqnn_commit, dropped by rewind, reset and replay. */
EQNN_API void eqnn_file_update(eqnn_tensor *buffer, eqnn_tensor *value, double momentum);
EQNN_API void eqnn_commit(eqnn_ctx *c);
/* What a layer makes of its parameters alone, for instance a weight matrix from its coefficients:
   f is called once a step under this name and scope, and again when parameters have changed. */
typedef eqnn_tensor *(*eqnn_maker)(eqnn_ctx *c, const void *user);
EQNN_API eqnn_tensor *eqnn_once(eqnn_ctx *c, const char *name, eqnn_maker f, const void *user);

/* Parameters are counted in the order of their first calls; buffers are not among them, but
   eqnn_parameter finds them too. */
EQNN_API int eqnn_parameter_count(const eqnn_ctx *c); /* tensors */
EQNN_API size_t eqnn_parameter_size(const eqnn_ctx *c); /* numbers */
EQNN_API eqnn_tensor *eqnn_parameter(eqnn_ctx *c, const char *full_name); /* NULL when not there */
EQNN_API eqnn_tensor *eqnn_parameter_at(eqnn_ctx *c, int i);
EQNN_API const char *eqnn_parameter_name(const eqnn_ctx *c, int i);
EQNN_API int eqnn_set(eqnn_tensor *parameter, const double *values); /* rows*cols numbers */
EQNN_API eqnn_tensor *eqnn_gradient(eqnn_tensor *parameter); /* a constant copy */
EQNN_API void eqnn_zero_gradients(eqnn_ctx *c);
/* Adds a worker's gradients and filed updates to those of the context whose weights it uses, and
   zeroes the worker's. Called in a fixed order it gives the same bits for any number of threads. */
EQNN_API void eqnn_add_gradients(eqnn_ctx *to, eqnn_ctx *worker);
/* Patterns: '*' stands for any run of characters; they hold for parameters that come later too.
   Frozen parameters get no gradient and no update. */
EQNN_API int eqnn_freeze(eqnn_ctx *c, const char *pattern, int frozen); /* how many matched */
EQNN_API int eqnn_rate_scale(eqnn_ctx *c, const char *pattern, double scale);
/* Names close at the first optimizer step: then a new one is an error, except under this prefix. */
EQNN_API void eqnn_open(eqnn_ctx *c, const char *prefix);
EQNN_API void eqnn_summary(eqnn_ctx *c, FILE *file); /* a table of the weights and their use */

/* safetensors. What is saved: parameters, buffers, optimizers ("eqnn.adam.m.NAME", ...), steps,
   tick and notes. Written beside the old file and renamed over it. Save right after eqnn_reset, and
   a run that loads the file continues bit for bit. While averaged weights are in use they are what
   is saved, alone. Loading puts entries aside until the first calls claim them. */
typedef struct eqnn_load_opts {
    int partial;        /* entries may be left over or missing; default an error          */
    const char *prefix; /* put before every name in the file; default none                */
    int weights_only;   /* no optimizers, steps, tick and notes; default all of them      */
} eqnn_load_opts;
EQNN_API int eqnn_save(eqnn_ctx *c, const char *path);
EQNN_API int eqnn_load(eqnn_ctx *c, const char *path, const eqnn_load_opts *opts);
/* 1 when every loaded entry found its parameter and every parameter its entry, else 0 and an error
   that names them. The first optimizer step asks too; a program that only predicts asks after one
   call. */
EQNN_API int eqnn_loaded(eqnn_ctx *c);
/* Short texts kept with the context and its files: an epoch, a best loss. NULL when not there. */
EQNN_API int eqnn_note(eqnn_ctx *c, const char *key, const char *text);
EQNN_API const char *eqnn_noted(const eqnn_ctx *c, const char *key);

/* Any safetensors file. Integers and half precisions are converted. */
typedef struct eqnn_file eqnn_file;
typedef struct eqnn_entry {
    const char *name, *dtype;  /* "F64", "F32", "F16", "BF16", "I64", ... */
    int dims;
    int64_t shape[8];
    size_t count;              /* numbers */
} eqnn_entry;
/* NULL and an error when malformed */
EQNN_API eqnn_file *eqnn_file_open(eqnn_ctx *c, const char *path);
EQNN_API eqnn_file *eqnn_file_parse(eqnn_ctx *c, const void *bytes, size_t size);  /* not copied */
EQNN_API void eqnn_file_close(eqnn_file *f);
EQNN_API int eqnn_file_count(const eqnn_file *f);
EQNN_API const eqnn_entry *eqnn_file_entry(const eqnn_file *f, int i);
EQNN_API const eqnn_entry *eqnn_file_find(const eqnn_file *f, const char *name);
EQNN_API int eqnn_file_read(eqnn_file *f, const eqnn_entry *e, double *out);      /* 1 when done */
EQNN_API int eqnn_file_read_int(eqnn_file *f, const eqnn_entry *e, int64_t *out);
EQNN_API const char *eqnn_file_meta(const eqnn_file *f, const char *key);  /* unescaped, or NULL */
EQNN_API int eqnn_file_metas(const eqnn_file *f);
EQNN_API const char *eqnn_file_meta_key(const eqnn_file *f, int i);

/* A safetensors file of n tensors [rows,cols] and texts; and a file of any bytes. Both are written
   beside the old file and renamed over it: 1 when done, else an error and the old file stays. */
EQNN_API int eqnn_file_write(eqnn_ctx *c, const char *path, const char *const *names,
                             eqnn_tensor *const *tensors, int n, const char *const *keys,
                             const char *const *texts, int metas);
EQNN_API int eqnn_write_file(eqnn_ctx *c, const char *path, const void *bytes, size_t n);

/* ----------------------------------------------------------------------------------------------
   8 >>layers   Functions with weights.
   ---------------------------------------------------------------------------------------------- */

typedef struct eqnn_linear_opts {
    int no_bias;            /* default a bias                                            */
    eqnn_init weight, bias; /* default torch's: uniform +-1/sqrt(columns of x) [1]       */
} eqnn_linear_opts;
/* [1] a normal one says its scale, because all zeros are the default */

/* y = x W^T + b, W [out, in] "weight", b [out] "bias" */
EQNN_API eqnn_tensor *eqnn_linear(eqnn_tensor *x, const char *name, int out,
                                  const eqnn_linear_opts *opts);

typedef struct eqnn_mlp_opts {
    eqnn_act act;             /* between layers; default silu                             */
    int linear;               /* no activation at all                                     */
    int act_last;             /* also after the last layer; default not                   */
    eqnn_linear_opts layer;
} eqnn_mlp_opts;
/* Linear layers "0", "1", ... of the widths listed: "64,64,36" */
EQNN_API eqnn_tensor *eqnn_mlp(eqnn_tensor *x, const char *name, const char *widths,
                               const eqnn_mlp_opts *opts);

/* Row r is row index[r] of "weight" [entries, cols]; init NULL: N(0,1). */
EQNN_API eqnn_tensor *eqnn_embedding(eqnn_ctx *c, eqnn_ints *index, const char *name, int entries,
                                     int cols, const eqnn_init *init);

typedef struct eqnn_norm_opts {
    double eps;       /* default 1e-5                    */
    double momentum;  /* batch norm only; default 0.1    */
    int no_affine;    /* default weight and bias         */
    int clamp;        /* batch norm only: max(var, eps) in the place of var + eps */
} eqnn_norm_opts;
/* Each row with mean 0 and variance 1, times "weight", plus "bias". */
EQNN_API eqnn_tensor *eqnn_layer_norm(eqnn_tensor *x, const char *name, const eqnn_norm_opts *opts);
/* Each column likewise, over all rows; those of training are averaged into "running_mean" and
   "running_var", which are used otherwise (eqnn_training). */
EQNN_API eqnn_tensor *eqnn_batch_norm(eqnn_tensor *x, const char *name, const eqnn_norm_opts *opts);

/* ----------------------------------------------------------------------------------------------
   9 >>training   Optimizers, schedules, averages; integrators of differential equations.
   ---------------------------------------------------------------------------------------------- */

typedef struct eqnn_adam eqnn_adam;
typedef struct eqnn_sgd eqnn_sgd;

typedef struct eqnn_adam_opts {
    double rate;         /* step size; default 1e-3                                  */
    double beta1, beta2; /* memory of mean and square; default 0.9, 0.999            */
    double eps;          /* default 1e-8                                             */
    double decay;        /* decoupled weight decay (AdamW); default none             */
    double l2;           /* weight decay added to the gradient (Adam); default none  */
    double clip;         /* largest norm of the whole gradient; default no limit     */
    double average;      /* decay of the moving average of the weights; default none */
} eqnn_adam_opts;
typedef struct eqnn_sgd_opts {
    double rate;           /* default 1e-2 */
    double momentum;       /* default none */
    int nesterov;
    double l2, clip, average;
} eqnn_sgd_opts;

/* The context's one Adam (or SGD): a later one replaces it and starts anew, except that the first
   one after eqnn_load continues what was saved. The rate is not saved: it is the program's. */
EQNN_API eqnn_adam *eqnn_adam_make(eqnn_ctx *c, const eqnn_adam_opts *opts);
EQNN_API eqnn_sgd *eqnn_sgd_make(eqnn_ctx *c, const eqnn_sgd_opts *opts);
/* One update from the summed gradients, which are zeroed. 0 when nothing was done because of an
   error or a gradient that is not finite (then an error). */
EQNN_API int eqnn_adam_step(eqnn_adam *o);
EQNN_API int eqnn_sgd_step(eqnn_sgd *o);
EQNN_API void eqnn_adam_rate(eqnn_adam *o, double rate);
EQNN_API void eqnn_sgd_rate(eqnn_sgd *o, double rate);
EQNN_API int64_t eqnn_adam_steps(const eqnn_adam *o); /* done so far, also before a resume */
EQNN_API int64_t eqnn_sgd_steps(const eqnn_sgd *o);
EQNN_API double eqnn_gradient_norm(eqnn_ctx *c);
/* Uses the averaged weights from now on (on = 1) or the trained ones again (0). */
EQNN_API int eqnn_use_average(eqnn_ctx *c, int on);
/* Called with each gradient slab (and once with the filed updates) before an update; must replace
   it by the mean over all ranks and return 1, or 0 when that fails. */
typedef int (*eqnn_allreduce)(void *user, eqnn_real *values, size_t count);
EQNN_API void eqnn_set_allreduce(eqnn_ctx *c, eqnn_allreduce f, void *user);

typedef enum { EQNN_CONSTANT, EQNN_STEPS, EQNN_EXPONENTIAL, EQNN_COSINE } eqnn_schedule_kind;
typedef struct eqnn_schedule {
    eqnn_schedule_kind kind;
    double rate;      /* at the start (after warm-up)                                           */
    double last;      /* cosine: at the end; default 0                                          */
    double factor;    /* steps: by which to multiply (default 0.1); exponential: per step       */
    int64_t every;    /* steps: how often                                                       */
    int64_t warmup;   /* steps of linear growth from 0 before all this; default none            */
    int64_t total;    /* cosine: steps in all, warm-up included                                 */
    double least;     /* cosine: never below; default no limit                                  */
    int overlap;      /* cosine and warm-up begin together, and are multiplied                  */
} eqnn_schedule;
EQNN_API double eqnn_schedule_rate(const eqnn_schedule *s, int64_t step);

/* Reduce on plateau: call with each value of a loss; returns the rate to use. Zero the struct, set
   rate. */
typedef struct eqnn_plateau {
    double rate, factor;        /* default factor 0.1           */
    int patience;               /* bad values borne; default 10 */
    double threshold, min_rate; /* relative; default 1e-4, 0    */
    double best;                /* state                        */
    int bad, started;
} eqnn_plateau;
EQNN_API double eqnn_plateau_rate(eqnn_plateau *p, double loss);

/* Ordinary differential equations dy/dt = f(y, t): y and dy/dt [rows, cols] of one label, all rows
   with the same steps. The result is differentiated through the tape, to any order, by y0, by
   parameters and by whatever else f touches; the times are constants. */
typedef eqnn_tensor *(*eqnn_field)(eqnn_tensor *y, double t, void *user);
typedef enum eqnn_ode_method {
    EQNN_DOPRI5,   /* Dormand and Prince 5(4): the steps follow the error                         */
    EQNN_RK4,      /* the classical Runge-Kutta method, order 4                                   */
    EQNN_MIDPOINT, /* implicit midpoint, order 2: symplectic for every Hamiltonian, so that the
                      energy error stays bounded; a step is solved by iteration                   */
    EQNN_RK38      /* Kutta's rule of 3/8, order 4: as the data of eqnn_system_run are made       */
} eqnn_ode_method;
typedef struct eqnn_ode_stats { int64_t steps, rejected, evaluations; } eqnn_ode_stats;
typedef struct eqnn_ode_opts {
    eqnn_ode_method method; /* default DOPRI5                                                     */
    double rtol, atol;      /* DOPRI5: error of a step; default 1e-4, 1.4e-8 [1]                  */
    double step;            /* RK4, RK38, MIDPOINT: the longest; default from time to time. DOPRI5:
                               the first; default by a rule                                       */
    double solve;           /* MIDPOINT: relative change that ends the iteration; default eps  */
    int max_steps;          /* rejected ones included; default 10000                              */
    int adjoint;            /* a second equation, run backwards, gives the derivatives: constant
                               memory, first derivatives only. user must live until then, and f
                               may touch nothing but y, user and parameters. Default the tape     */
    eqnn_ode_stats *stats;  /* what the call took is written there; default nowhere               */
} eqnn_ode_opts;
/* [1] root mean square of error / (atol + rtol |y|); where y turns |y| is the root mean square of a
   row, so that the steps do not depend on how the world is turned. */

/* y[i] is the solution at times[i] that starts with y[0] = y0; times rise or fall. 1 when done;
   else an error, and y[] is NULL. */
EQNN_API int eqnn_ode(eqnn_field f, eqnn_tensor *y0, const double *times, int n, eqnn_tensor **y,
                      void *user, const eqnn_ode_opts *opts);

/* ----------------------------------------------------------------------------------------------
   10 >>irreps   How a row of numbers turns when the world turns: irreducible representations of
                 O(3), their strings ("16x0e+8x1o"), sizes, rotation matrices and products.
   ---------------------------------------------------------------------------------------------- */

/* Parses e3nn's grammar; the label is the context's. An error names the position. */
EQNN_API const eqnn_irreps *eqnn_irreps_make(eqnn_ctx *c, const char *text);
EQNN_API const eqnn_irreps *eqnn_irreps_blocks(eqnn_ctx *c, const int (*mul_l_p)[3], int blocks);
/* 1x0e+1x1o+... of a vector */
EQNN_API const eqnn_irreps *eqnn_irreps_spherical(eqnn_ctx *c, int lmax);
EQNN_API const eqnn_irreps *eqnn_irreps_concat(eqnn_ctx *c, const eqnn_irreps *a,
                                               const eqnn_irreps *b);
EQNN_API const eqnn_irreps *eqnn_irreps_times(eqnn_ctx *c, const eqnn_irreps *a, int n);
EQNN_API const eqnn_irreps *eqnn_irreps_simplify(eqnn_ctx *c, const eqnn_irreps *a);
/* stable; map or NULL */
EQNN_API const eqnn_irreps *eqnn_irreps_sort(eqnn_ctx *c, const eqnn_irreps *a, int *new_of_old);
EQNN_API const eqnn_irreps *eqnn_irreps_regroup(eqnn_ctx *c, const eqnn_irreps *a);
EQNN_API const eqnn_irreps *eqnn_irreps_filter(eqnn_ctx *c, const eqnn_irreps *a,
                                               const eqnn_irreps *keep,
                                               /* NULL, NULL, -1: no wish */
                                               const eqnn_irreps *drop, int lmax);
EQNN_API int eqnn_irreps_count(const eqnn_irreps *a, int l, int p); /* copies */
EQNN_API int eqnn_irreps_has(const eqnn_irreps *a, int l, int p); /* also of a block of no copies */
EQNN_API int eqnn_irreps_lmax(const eqnn_irreps *a);                /* -1 when empty */

/* Rotations act on column vectors; Euler angles are Y-X-Y: R = Ry(alpha) Rx(beta) Ry(gamma).
   Matrices are row-major double[9], quaternions (w,x,y,z). */
EQNN_API void eqnn_rotation_angles(double alpha, double beta, double gamma, double R[9]);
EQNN_API void eqnn_angles_rotation(const double R[9], double *alpha, double *beta, double *gamma);
EQNN_API void eqnn_rotation_axis(const double axis[3], double angle, double R[9]);
EQNN_API void eqnn_axis_rotation(const double R[9], double axis[3], double *angle);
EQNN_API void eqnn_rotation_quaternion(const double q[4], double R[9]);
EQNN_API void eqnn_quaternion_rotation(const double R[9], double q[4]);
/* Uniform in SO(3), or in O(3) with improper set. */
EQNN_API void eqnn_rotation_random(eqnn_ctx *c, const char *name, int improper, double R[9]);

/* 3j tensor C [2l1+1][2l2+1][2l3+1] of unit norm with e3nn's signs; 0 when the triangle fails. */
EQNN_API int eqnn_wigner_3j(int l1, int l2, int l3, double *C);
/* D^l [2l+1][2l+1] of an orthogonal matrix; improper R gives the natural parity (-1)^l. */
EQNN_API void eqnn_wigner_D(int l, const double R[9], double *D);
/* Generators X_x, X_y, X_z: D(exp(t n)) = exp(t n.X); X [3][2l+1][2l+1] */
EQNN_API void eqnn_generators(int l, double *X);
/* The matrix [cols, cols] of R on a label's columns, our layout. */
EQNN_API void eqnn_irreps_D(const eqnn_irreps *a, const double R[9], double *D);
/* x turned by R according to its label (numbers only; a constant). */
EQNN_API eqnn_tensor *eqnn_rotate(eqnn_tensor *x, const double R[9]);

/* Harmonics of one vector in double: Y[(lmax+1)^2], component normalisation, r^l included. */
EQNN_API void eqnn_solid_harmonics(int lmax, const double r[3], double *Y);

/* Largest error of f(R x) = R f(x) over trials random group elements (improper too), relative to
   max |f|; labels say how everything turns. absolute (or NULL) gets max |f(Rx) - R f(x)|. */
EQNN_API double eqnn_check_equivariance(eqnn_function f, eqnn_tensor *const *x, int n, void *user,
                                        int trials, double *absolute);

/* ----------------------------------------------------------------------------------------------
   11 >>equivariant   What commutes with rotations: harmonics, products, linear maps, gates.
   ---------------------------------------------------------------------------------------------- */

/* e3nn's order [channels][2l+1] and ours [2l+1][channels]. The first labels plain columns. */
EQNN_API eqnn_tensor *eqnn_from_e3nn(eqnn_tensor *x, const eqnn_irreps *irreps);
EQNN_API eqnn_tensor *eqnn_to_e3nn(eqnn_tensor *x);  /* result has no label */

typedef enum { EQNN_COMPONENT, EQNN_INTEGRAL, EQNN_NORM } eqnn_harmonics_kind;
typedef struct eqnn_harmonics_opts {
    int normalize;              /* of x / |x|; 0 at the zero vector for l > 0. Default no: r^l Y  */
    eqnn_harmonics_kind kind;   /* default component: sum over m of Y^2 = 2l+1 on the unit sphere */
} eqnn_harmonics_opts;
/* Degrees 0..lmax of vectors r [n,3]: [n,(lmax+1)^2], label 1x0e+1x1o+1x2e+... */
EQNN_API eqnn_tensor *eqnn_spherical_harmonics(eqnn_tensor *r, int lmax,
                                               const eqnn_harmonics_opts *opts);

typedef enum {
    EQNN_GAUSSIAN, EQNN_COSINE_BASIS, EQNN_SMOOTH_FINITE, EQNN_FOURIER, EQNN_BESSEL
} eqnn_basis;
typedef struct eqnn_radial_opts {
    double start;     /* default 0                                                       */
    eqnn_basis basis; /* default gaussian                                                */
    int cutoff;       /* functions vanish at both ends (e3nn's cutoff=True); default not */
    int unscaled;     /* default times sqrt(number), as e3nn's models do                 */
} eqnn_radial_opts;
/* x [n,1] -> [n,number], e3nn's soft_one_hot_linspace from start to end */
EQNN_API eqnn_tensor *eqnn_radial_basis(eqnn_tensor *x, int number, double end,
                                        const eqnn_radial_opts *opts);

typedef enum {
    EQNN_UVW, EQNN_UVU, EQNN_UVV, EQNN_UUW, EQNN_UUU, EQNN_UVUV,
    EQNN_UVU_LESS, EQNN_U_LESS_VW /* e3nn's uvu<v and u<vw: pairs of one input with itself */
} eqnn_mode;
typedef struct eqnn_path { /* one instruction of a tensor product */
    int i1, i2, io;        /* blocks                              */
    eqnn_mode mode;
    int unweighted;
    double path_weight;    /* default 1; under the square root; negative: switched off */
} eqnn_path;
typedef enum { EQNN_ELEMENT, EQNN_PATH, EQNN_PLAIN } eqnn_path_kind;
typedef enum { EQNN_IRREP_COMPONENT, EQNN_IRREP_NORM, EQNN_IRREP_PLAIN } eqnn_irrep_kind;
typedef struct eqnn_product_opts {
    eqnn_irrep_kind irrep_kind;                /* default component    */
    eqnn_path_kind path_kind;                  /* default element      */
    const double *in1_var, *in2_var, *out_var; /* per block; default 1 */
} eqnn_product_opts;
/* A product of two labels: made once (the same arguments give the same product), the context's. */
typedef struct eqnn_product eqnn_product;
EQNN_API const eqnn_product *eqnn_product_make(eqnn_ctx *c, const eqnn_irreps *in1,
                                               const eqnn_irreps *in2, const eqnn_irreps *out,
                                               const eqnn_path *paths, int n,
                                               const eqnn_product_opts *opts);
/* All uvw paths (FullyConnectedTensorProduct). */
EQNN_API const eqnn_product *eqnn_product_full(eqnn_ctx *c, const eqnn_irreps *in1,
                                               const eqnn_irreps *in2, const eqnn_irreps *out,
                                               const eqnn_product_opts *opts);
/* All uvu paths into the irreps of filter (NULL: all), output sorted: as convolutions use it. */
EQNN_API const eqnn_product *eqnn_product_channelwise(eqnn_ctx *c, const eqnn_irreps *in1,
                                                      const eqnn_irreps *in2,
                                                      const eqnn_irreps *filter,
                                                      const eqnn_product_opts *opts);
/* Products without weights; equal neighbours in the inputs are merged first, variances are not
   used, filter (NULL: none) keeps some irreps of the output. outer: every copy of one times every
   copy of the other, output sorted (FullTensorProduct). elementwise: copy u of one times copy u of
   the other (ElementwiseTensorProduct). square: of one input with itself, each pair of copies
   once, output sorted (TensorSquare); call eqnn_tensor_product(x, x, NULL, p). */
EQNN_API const eqnn_product *eqnn_product_outer(eqnn_ctx *c, const eqnn_irreps *in1,
                                                const eqnn_irreps *in2, const eqnn_irreps *filter,
                                                const eqnn_product_opts *opts);
EQNN_API const eqnn_product *eqnn_product_elementwise(eqnn_ctx *c, const eqnn_irreps *in1,
                                                      const eqnn_irreps *in2,
                                                      const eqnn_irreps *filter,
                                                      const eqnn_product_opts *opts);
EQNN_API const eqnn_product *eqnn_product_square(eqnn_ctx *c, const eqnn_irreps *in,
                                                 const eqnn_irreps *filter,
                                                 const eqnn_product_opts *opts);
/* The square mixed into the irreps of out by weights (TensorSquare with irreps_out). */
EQNN_API const eqnn_product *eqnn_product_square_full(eqnn_ctx *c, const eqnn_irreps *in,
                                                      const eqnn_irreps *out,
                                                      const eqnn_product_opts *opts);
EQNN_API const eqnn_irreps *eqnn_product_out(const eqnn_product *p);
EQNN_API int eqnn_product_weights(const eqnn_product *p);
EQNN_API int eqnn_product_paths(const eqnn_product *p);
EQNN_API double eqnn_product_coefficient(const eqnn_product *p, int path);
/* some path leads to that output block */
EQNN_API int eqnn_product_reaches(const eqnn_product *p, int block);
/* z = sum over paths; w [1,weights] shared, [rows,weights] per row, or NULL without weights. */
EQNN_API eqnn_tensor *eqnn_tensor_product(eqnn_tensor *x, eqnn_tensor *y, eqnn_tensor *w,
                                          const eqnn_product *p);

typedef struct eqnn_graph eqnn_graph; /* section 12 */
/* The message form: z[target] = sum over edges of product(x[source], y[edge]; w[edge]), where the
   weights of an edge are h[edge] V (V [hidden, weights]); V NULL: h has them, [edges, weights] or
   one row. h may also have a row per undirected pair. Nothing of size edges x weights is stored. */
EQNN_API eqnn_tensor *eqnn_message(eqnn_tensor *x, eqnn_tensor *y, eqnn_tensor *h, eqnn_tensor *V,
                                   const eqnn_product *p, const eqnn_graph *g);

typedef struct eqnn_irreps_linear_opts {
    int biases;                /* on every 0e block; default none                    */
    const int *bias_blocks;    /* or a flag per output block                         */
    eqnn_path_kind path_kind;  /* default element                                    */
    const int (*paths)[2];     /* (i_in, i_out); default all equal irreps            */
    int path_count;
} eqnn_irreps_linear_opts;
/* e3nn's o3.Linear: "weight" [numel], "bias" */
EQNN_API eqnn_tensor *eqnn_irreps_linear(eqnn_tensor *x, const char *name, const char *irreps_out,
                                         const eqnn_irreps_linear_opts *opts);
/* The same with weights given: w [1,numel] or [rows,numel], bias [1,numel_b] or NULL. */
EQNN_API eqnn_tensor *eqnn_irreps_map(eqnn_tensor *x, eqnn_tensor *w, eqnn_tensor *bias,
                                      const eqnn_irreps *out, const eqnn_irreps_linear_opts *opts);
EQNN_API int eqnn_irreps_map_weights(const eqnn_irreps *in, const eqnn_irreps *out,
                                     const eqnn_irreps_linear_opts *opts);
/* FullyConnectedTensorProduct with its weights: "weight" [numel] */
EQNN_API eqnn_tensor *eqnn_fully_connected(eqnn_tensor *x, eqnn_tensor *y, const char *name,
                                           const char *irreps_out, const eqnn_product_opts *opts);

/* All tensors T[i][j].. with a symmetry of their indices, as irreps (e3nn's ReducedTensorProducts).
   The formula lists exchanges of indices that leave T as it is or, with a minus, change its sign:
   "ij=ji", "ijk=-jik=-ikj", "ijkl=jikl=ijlk=klij"; at most 7 indices. irreps says what each index
   runs over: "i=2x1e, k=2o" (one index speaks for those it changes places with), or "1o" for every
   one. The rows of the basis Q [out][i][j].. are orthonormal, span these tensors and turn with the
   irreps of out: D(out) Q = Q (D(i) x D(j) x ..). Which rows stand for several copies of one irrep
   is a choice; what they span is not. Made once (the same arguments give the same one), the
   context's. */
typedef struct eqnn_reduced_opts {
    const eqnn_irreps *out; /* irreps to keep; default all                                      */
    const eqnn_irreps *mid; /* irreps that i and j, then these and k, .. may couple to; default
                               all. What cannot be made from them alone falls out.              */
} eqnn_reduced_opts;
typedef struct eqnn_reduced eqnn_reduced;
EQNN_API const eqnn_reduced *eqnn_reduced_make(eqnn_ctx *c, const char *formula, const char *irreps,
                                               const eqnn_reduced_opts *opts);
EQNN_API int eqnn_reduced_indices(const eqnn_reduced *r);
EQNN_API const eqnn_irreps *eqnn_reduced_in(const eqnn_reduced *r, int index);
EQNN_API const eqnn_irreps *eqnn_reduced_out(const eqnn_reduced *r); /* sorted */
/* Q [out->cols][in(0)->cols][in(1)->cols].., columns as in these labels; 0 when there is none */
EQNN_API int eqnn_reduced_basis(const eqnn_reduced *r, double *Q);
/* z[o] = sum over i, j, .. of Q[o][i][j].. x[0][i] x[1][j] ..: a tensor for each index */
EQNN_API eqnn_tensor *eqnn_reduced_product(eqnn_tensor *const *x, const eqnn_reduced *r);
/* Cartesian tensors of that symmetry, rows T[xyz][xyz].. (the last index fastest), as irreps and
   back: a stress, "ij=ji", is 1x0e+1x2e. The first leaves out what has not the symmetry. The result
   of the second has no label, although it turns. */
EQNN_API eqnn_tensor *eqnn_from_cartesian(eqnn_tensor *x, const char *formula);
EQNN_API eqnn_tensor *eqnn_to_cartesian(eqnn_tensor *x, const char *formula);

typedef struct eqnn_contraction_opts {
    int correlation;    /* most factors in a product; default 3                         */
    eqnn_ints *species; /* of each row, whose range is the number of species; default one */
} eqnn_contraction_opts;
/* MACE's product basis (Batatia et al. 2022, arXiv:2206.07697, eqs. 10 and 11): from x, blocks of C
   copies each, C copies of every irrep L of irreps_out, channel by channel:

       z_L[u] = sum over nu = 1..correlation, paths p of
                    w[species, p, u] sum U_p[lm1, .., lm_nu] x[lm1, u] .. x[lm_nu, u]

   U are the rows for L of the reduced product of nu equal indices that is symmetric in all; weights
   trained with other rows are theirs after a linear map. Weights of output block i:
   "contractions.i.weights_max" [species, paths x C] of the highest order, ".weights.0" of one order
   less, and so on; drawn from N(0, 1 / paths^2). */
EQNN_API eqnn_tensor *eqnn_symmetric_contraction(eqnn_tensor *x, const char *name,
                                                 const char *irreps_out,
                                                 const eqnn_contraction_opts *opts);

/* Activations are divided by their second moment under N(0,1): by e3nn's tabulated constants, or
   exactly when exact is set. */
EQNN_API double eqnn_moment(eqnn_ctx *c, eqnn_act act, double p, int exact);
/* One act per block of x (EQNN_IDENTITY: none), e3nn's Activation. */
EQNN_API eqnn_tensor *eqnn_activation(eqnn_tensor *x, const eqnn_act *acts, int exact);
typedef struct eqnn_gate_spec { /* e3nn's Gate: blocks of scalars, gates and what they gate */
    const eqnn_irreps *scalars, *gates, *gated;
    const eqnn_act *act_scalars, *act_gates; /* one per block */
    int exact;
} eqnn_gate_spec;
/* what eqnn_gate wants */
EQNN_API const eqnn_irreps *eqnn_gate_in(eqnn_ctx *c, const eqnn_gate_spec *s);
EQNN_API eqnn_tensor *eqnn_gate(eqnn_tensor *x, const eqnn_gate_spec *s);
/* e3nn's FullyConnectedNet "layer0.weight", ...: widths "64,64,12", no biases. */
typedef struct eqnn_fc_opts {
    eqnn_act act;                     /* between layers; default silu                           */
    double variance_in, variance_out; /* default 1                                              */
    int out_act, exact, no_act;       /* after the last layer too; exact second moments; linear */
} eqnn_fc_opts;
EQNN_API eqnn_tensor *eqnn_fc(eqnn_tensor *x, const char *name, const char *widths,
                              const eqnn_fc_opts *opts);

/* Copies of x [.., irreps] times a number each: a [rows or 1, copies], copies in block order. */
EQNN_API eqnn_tensor *eqnn_scale_copies(eqnn_tensor *x, eqnn_tensor *a);
/* The squared norm of each copy [rows, copies]. */
EQNN_API eqnn_tensor *eqnn_square_copies(eqnn_tensor *x);
/* The length of each copy [rows, copies]; gradient 0 at a copy that is zero. */
EQNN_API eqnn_tensor *eqnn_norm_copies(eqnn_tensor *x);

typedef struct eqnn_norm_activation_opts {
    double eps;       /* shorter copies are treated as of this length; default 1e-8       */
    int bias;         /* a number per copy, "biases", added to the length; default none   */
    int no_normalize; /* x act(|x| + b), eps is not used; default x act(|x| + b) / |x|    */
} eqnn_norm_activation_opts;
/* Each copy keeps its direction and gets the length act(|x| + b), e3nn's NormActivation. The act is
   taken as it is, not divided by its second moment. */
EQNN_API eqnn_tensor *eqnn_norm_activation(eqnn_tensor *x, const char *name, eqnn_act act,
                                           const eqnn_norm_activation_opts *opts);

typedef struct eqnn_irreps_norm_opts {
    double eps, momentum; /* default 1e-5, 0.1                                                 */
    int no_affine;        /* neither "weight" nor "bias"; default both                         */
    int no_bias;          /* "weight" only                                                     */
    int norm;             /* the squared length of a copy, not the mean square of a component  */
    int instance;         /* each example by itself, training or not; default over all rows    */
    int max;              /* the largest within an example, then the mean; default the mean    */
    eqnn_ints *example;   /* which example a row belongs to; default each row is one           */
} eqnn_irreps_norm_opts;
/* e3nn's BatchNorm: copies are divided by the root of their mean square over the rows, after the
   0e ones are centred; times "weight" [copies], plus "bias" on 0e. "running_mean" (of 0e) and
   "running_var" (of all copies) follow the batches of training and are used otherwise. */
EQNN_API eqnn_tensor *eqnn_irreps_batch_norm(eqnn_tensor *x, const char *name,
                                             const eqnn_irreps_norm_opts *opts);
/* When training, each copy is zero with probability p or times 1/(1 - p), as a whole; one draw for
   each row, or for each example when rows belong to some (NULL: not). */
EQNN_API eqnn_tensor *eqnn_irreps_dropout(eqnn_tensor *x, const char *name, double p,
                                          eqnn_ints *example);

/* These n blocks of x in this order; all blocks of one irrep. */
EQNN_API eqnn_tensor *eqnn_extract(eqnn_tensor *x, const int *blocks, int n);
EQNN_API eqnn_tensor *eqnn_extract_irrep(eqnn_tensor *x, int l, int p);

/* Functions on the sphere (of C channels) as values on a grid: rings of polar angles
   pi (i + 1/2)/beta, each with points at azimuths 2 pi j/alpha. x [rows, "Cx0e+Cx1o+Cx2e+..."],
   any parities; the values [rows, beta alpha C] have no label: point (i, j) of channel u stands in
   column (i alpha + j) C + u, so a reshape to [rows beta alpha, C] gives each point a row. */
typedef struct eqnn_grid_opts {
    int beta;                 /* rings, even; default 2 (lmax + 1)                               */
    int alpha;                /* points of a ring; default beta - 1                              */
    eqnn_harmonics_kind kind; /* sphere: for which harmonics the coefficients are meant; default
                                 component; values then have about the variance of components    */
    const double *scale;      /* sphere: a factor for each degree, by which from_s2grid divides;
                                 default kind's                                                  */
    int lmax_in;              /* from_s2grid: of what the values were made; default of irreps    */
    int lmax_out;             /* activations: largest degree of the result; default as in x (0:
                                 take eqnn_extract_irrep of that)                                */
    int exact;                /* activations: exact second moments; default e3nn's constants     */
    const char *random;       /* turns the grid at random under this name; default not           */
} eqnn_grid_opts;
EQNN_API eqnn_tensor *eqnn_to_s2grid(eqnn_tensor *x, const eqnn_grid_opts *opts);
/* Back by quadrature: exact for values that were made of no higher degrees. */
EQNN_API eqnn_tensor *eqnn_from_s2grid(eqnn_tensor *values, const eqnn_irreps *irreps,
                                       const eqnn_grid_opts *opts);
/* The points [beta alpha][3] and weights [beta alpha], of sum 1, of that grid; beta even. Means of
   harmonics up to degree beta - 1 (and alpha - 1) are exact. Either may be NULL. */
EQNN_API void eqnn_s2grid_points(int beta, int alpha, double *xyz, double *weight);
/* e3nn's S2Activation: to the grid, the act at each point, back. The parities of x are
   p (+-1)^l; with p = -1 the act must be even (then p becomes +1) or odd. Equivariant up to the
   degrees that the grid does not resolve: the finer the grid, the smaller the error. */
EQNN_API eqnn_tensor *eqnn_s2_activation(eqnn_tensor *x, eqnn_act act, const eqnn_grid_opts *opts);
/* The same for functions on SO(3), f(g) = sum over l, i, j of F_lij sqrt(2l+1) D_lij(g) / N, N^2
   being the number of coefficients: x [rows, "Cx0e+3Cx1e+5Cx2e+..."], one parity; F_lij is
   component j of copy i C + u. Points (i, j, k) at angles beta_i, alpha_j, gamma_k, as many of
   gamma as of alpha; e3nn's SO3Grid of resolution r has beta 2 r, alpha 4 r. */
EQNN_API eqnn_tensor *eqnn_to_so3grid(eqnn_tensor *x, const eqnn_grid_opts *opts);
EQNN_API eqnn_tensor *eqnn_from_so3grid(eqnn_tensor *values, const eqnn_irreps *irreps,
                                        const eqnn_grid_opts *opts);
EQNN_API eqnn_tensor *eqnn_so3_activation(eqnn_tensor *x, eqnn_act act,
                                          const eqnn_grid_opts *opts);

/* ----------------------------------------------------------------------------------------------
   12 >>graphs   Who talks to whom. Edges lead from a source to a target; many examples lie packed
                 in one graph.
   ---------------------------------------------------------------------------------------------- */

/* Read only. Edges are sorted by (target, source). */
struct eqnn_graph {
    eqnn_ctx *ctx;
    int sources, targets, edges, examples;
    const int *source, *target;     /* [edges]                                                  */
    const int *first;               /* [targets+1] edges that enter a target                    */
    const int *by_source;           /* [edges] the same edges sorted by (source, target)        */
    const int *first_by_source;     /* [sources+1]                                              */
    const int *order;               /* [edges] where the edge stood in the list that was given  */
    const int *example;             /* [targets] sorted, or NULL when there is one example      */
    int pairs;                      /* undirected pairs, 0 when some edge has no reverse        */
    const int *pair;                /* [edges] or NULL                                          */
    const int *pair_edge;           /* [pairs] one edge of each                                 */
    int blocks;                     /* runs of nodes closed under their edges, 0 when not known */
    const int *block;               /* [blocks+1] first node; then sources are targets          */
    const eqnn_real *shift;         /* [edges,3] periodic image of the source, or NULL          */
    eqnn_ints *source_index, *target_index, *example_index, *pair_index, *pair_edge_index;
};

typedef struct eqnn_graph_opts {
    int sources, targets;     /* default: as many as the positions; else one gives the other     */
    const int *example;       /* [targets] sorted, which example a node belongs to; default one  */
    int examples;             /* default the last of example + 1                                 */
    const double *shift;      /* graph_make: [edges,3] added to the source's position (periodic
                                 images); default none                                           */
    const double *cell;       /* radius graph: [examples,3,3] lattice vectors, one a row: periodic;
                                 default not                                                     */
    int keep;                 /* outlasts the step; default not                                  */
    int loops;                /* all but graph_make: an edge from each node to itself, not one of
                                 its k nearest; default none                                     */
    int max_edges;            /* the same: an error when there are more; default no limit        */
    const int *source_example; /* knn_between: [sources] sorted, as example; default one         */
} eqnn_graph_opts;
EQNN_API const eqnn_graph *eqnn_graph_make(eqnn_ctx *c, int edges, const int *source,
                                           const int *target, const eqnn_graph_opts *opts);
/* All ordered pairs of one example with distance < radius, through every image when periodic. A
   cell list: time is linear in atoms and edges. */
EQNN_API const eqnn_graph *eqnn_radius_graph(eqnn_tensor *pos, double radius,
                                             const eqnn_graph_opts *opts);
/* From the k nearest other points of its example to each point, all of them where there are fewer;
   of equally near ones the smaller index. Points have any number of columns; coincident ones are
   neighbours. A tree: n log n for few columns. */
EQNN_API const eqnn_graph *eqnn_knn_graph(eqnn_tensor *pos, int k, const eqnn_graph_opts *opts);
/* The same from points to others: to each target its k nearest sources; .example is the targets',
   .source_example the sources'. Vectors along the edges are
   eqnn_sub(eqnn_gather(source_pos, g), eqnn_gather_target(target_pos, g)). */
EQNN_API const eqnn_graph *eqnn_knn_between(eqnn_tensor *source_pos, eqnn_tensor *target_pos, int k,
                                            const eqnn_graph_opts *opts);
/* All ordered pairs of one example. */
EQNN_API const eqnn_graph *eqnn_complete_graph(eqnn_ctx *c, int nodes, const eqnn_graph_opts *opts);

/* pos[source] + shift - pos[target], label 1x1o */
EQNN_API eqnn_tensor *eqnn_edge_vectors(eqnn_tensor *pos, const eqnn_graph *g);
EQNN_API eqnn_tensor *eqnn_gather(eqnn_tensor *x, const eqnn_graph *g); /* x[source[e]] */
EQNN_API eqnn_tensor *eqnn_gather_target(eqnn_tensor *x, const eqnn_graph *g);
/* Sums (means) over the edges that enter a node, 0 where there are none. */
EQNN_API eqnn_tensor *eqnn_scatter(eqnn_tensor *x, const eqnn_graph *g);
EQNN_API eqnn_tensor *eqnn_scatter_mean(eqnn_tensor *x, const eqnn_graph *g);
EQNN_API eqnn_tensor *eqnn_inverse_degree(const eqnn_graph *g); /* [targets,1] 1/max(edges,1) */
/* Softmax over the edges that enter a node, column by column. */
EQNN_API eqnn_tensor *eqnn_edge_softmax(eqnn_tensor *x, const eqnn_graph *g);
/* Over the nodes of each example: [examples, ...], 0 for an example without nodes. */
EQNN_API eqnn_tensor *eqnn_pool_sum(eqnn_tensor *x, const eqnn_graph *g);
EQNN_API eqnn_tensor *eqnn_pool_mean(eqnn_tensor *x, const eqnn_graph *g);

/* ----------------------------------------------------------------------------------------------
   13 >>models   Whole networks of the papers, under the names their state_dicts use.
   ---------------------------------------------------------------------------------------------- */

/* gate_points_2101's Convolution: x features (no label: scalars), z node attributes or NULL (ones),
   Y edge attributes, b what the radial network sees [edges or pairs, number]. Names: sc.weight,
   lin1.weight, fc.layer0.weight, ..., lin2.weight. */
typedef struct eqnn_conv_opts {
    int radial_layers, radial_neurons;  /* default 1, 64                                    */
    double neighbours;                  /* sums are divided by its square root; default 1   */
    int exact;                          /* exact second moments; default e3nn's             */
    int mixing;                         /* self-connection + a message, a a number of the node that
                                           is 0 at first ("alpha.weight"), as v2106 has it; default
                                           both with constant factors                       */
} eqnn_conv_opts;
EQNN_API eqnn_tensor *eqnn_conv(eqnn_tensor *x, eqnn_tensor *z, eqnn_tensor *Y, eqnn_tensor *b,
                                const eqnn_graph *g, const char *name, const eqnn_irreps *out,
                                const eqnn_conv_opts *opts);
/* Convolution ("first") and gate with the hidden irreps given, as a layer of the network below.
   Hidden irreps that no product of x and Y reaches are left out. */
EQNN_API eqnn_tensor *eqnn_gated_conv(eqnn_tensor *x, eqnn_tensor *z, eqnn_tensor *Y,
                                      eqnn_tensor *b, const eqnn_graph *g, const char *name,
                                      const char *hidden, const eqnn_conv_opts *opts);

/* gate_points_2101's Network (e3nn 0.5.1). */
typedef struct eqnn_network_opts {
    const char *hidden, *out;          /* irreps; no default                             */
    int layers;                        /* default 3                                      */
    int lmax;                          /* of the edge harmonics; default 3 (negative: 0) */
    double radius;                     /* no default                                     */
    int basis;                         /* number of radial functions; default 10         */
    int radial_layers, radial_neurons; /* default 1, 128                                 */
    double neighbours, nodes;          /* typical counts; default 1                      */
    int reduce;                        /* one row per example; default one per node      */
    int exact;
    eqnn_tensor *edge_scalars;       /* [edges, n] more input for the radial network, invariant, the
                                        same for an edge and its reverse; default none            */
} eqnn_network_opts;
/* x features or NULL (ones), z attributes or NULL (ones), pos [nodes,3]. Names:
   layers.0.first.sc.weight ... layers.3.lin2.weight (under name, when it is not empty). */
EQNN_API eqnn_tensor *eqnn_network(eqnn_tensor *x, eqnn_tensor *z, eqnn_tensor *pos,
                                   const eqnn_graph *g, const char *name,
                                   const eqnn_network_opts *opts);

/* The study's small model: two fully connected products of harmonics ("tp1", "tp2"). */
typedef struct eqnn_polynomial_opts {
    const char *mid, *out;           /* irreps; no default                          */
    int lmax;                        /* default 3                                   */
    double neighbours;               /* default 1                                   */
    eqnn_tensor *x;                  /* node features, multiplied by the harmonics of the first sum;
                                        default none: ones                          */
    int sum_last;                    /* sum over edges at the end; default the mean */
} eqnn_polynomial_opts;
EQNN_API eqnn_tensor *eqnn_polynomial(eqnn_tensor *pos, const eqnn_graph *g, const char *name,
                                      const eqnn_polynomial_opts *opts);

/* v2106's SimpleNetwork: options as above, but hidden default 50 of every irrep up to lmax, lmax 2,
   radial_neurons 100; layers mix as .mixing says. Names: mp.layers.0.first.sc.weight ... .alpha. */
EQNN_API eqnn_tensor *eqnn_network_2106(eqnn_tensor *x, eqnn_tensor *z, eqnn_tensor *pos,
                                        const eqnn_graph *g, const char *name,
                                        const eqnn_network_opts *opts);

/* SE(3)-attention (Fuchs et al. 2020, arXiv:2006.10503, as in e3nn's guide). A node asks (q), its
   edges answer (k) and bring something (v):
       y_i = sum_j sqrt(alpha_ij) v_ij    alpha_ij = cut(r_ij) exp(q_i . k_ij) / sum over j of that
   k and v are products of x[source] with the harmonics, weighted by networks of the length. The
   square root keeps the variance of y, for the alpha_ij of a node sum to 1.
   Names: to_q.weight, fc_k.layer0.weight, ..., fc_v.layer0.weight, ..., dot_product.weight. */
typedef struct eqnn_attention_opts {
    const char *q, *k, *out;  /* irreps; q and out have no default, k: as q                      */
    double radius;            /* no default; longer edges count for nothing                      */
    int lmax;                 /* of the harmonics; default 3 (negative: 0)                       */
    int basis, hidden;        /* numbers of radial functions and of hidden features; 10, 16      */
    eqnn_act act;             /* of the radial networks; default silu                            */
    int exact;
    int clamp;                /* cut exp(q.k) is at most 1: all good answers count alike         */
    int raw;                  /* exp as it stands, which overflows and underflows (a node whose
                                 exps are all 0 gets 0); default an equal form that does not     */
    int mean;                 /* divide y by the number of edges too, which jumps at the radius  */
    eqnn_tensor *edge_scalars; /* [edges, n] more input for the radial networks, invariant;
                                 default none                                                    */
    eqnn_tensor **weights;    /* gets alpha [edges,1]; default not wanted                        */
} eqnn_attention_opts;
EQNN_API eqnn_tensor *eqnn_attention(eqnn_tensor *x, eqnn_tensor *pos, const eqnn_graph *g,
                                     const char *name, const eqnn_attention_opts *opts);

/* Several heads ("heads.0", ...) with outputs mid side by side, then two fully connected products
   with the harmonics, each averaged over edges ("tp1", "tp2"). */
typedef struct eqnn_multi_head_opts {
    eqnn_attention_opts head; /* .out: what is called mid above                                  */
    const char *out;          /* default 1x1o                                                    */
    int heads;                /* default 8                                                       */
    /* of the network: */
    int layers;               /* default 4                                                       */
    int centred;              /* heads see positions from the centre of their example; default
                                 from the origin: the network knows where that is                */
    int moves;                /* a layer moves the positions, and the result is the whole way;
                                 default its output replaces them                                */
    eqnn_tensor *x;           /* [nodes, irreps] more features beside the positions; default none */
} eqnn_multi_head_opts;
EQNN_API eqnn_tensor *eqnn_multi_head(eqnn_tensor *x, eqnn_tensor *pos, const eqnn_graph *g,
                                      const char *name, const eqnn_multi_head_opts *opts);
/* The study's SE(3) network: multi-head layers ("layers.0", ...) whose features are the positions,
   [nodes,3] each. The graph is that of the first layer; the others make theirs, by radius (with
   .head.edge_scalars all have the first one's). The study's own has lmax 4, basis 20, hidden 25,
   gelu, clamp and mean; it did not train its heads. */
EQNN_API eqnn_tensor *eqnn_attention_network(eqnn_tensor *pos, const eqnn_graph *g,
                                             const char *name, const eqnn_multi_head_opts *opts);

/* Graph attention (Velickovic et al. 2018, arXiv:1710.10903, as PyTorch Geometric's GATConv), of
   plain numbers. With h = lin(x), for each head:
       score_ij = leaky_relu(h_j . att_src + h_i . att_dst + lin_edge(a_ij) . att_edge)
       y_i      = sum over edges j -> i of softmax_j(score_ij) h_j, + bias
   a [edges, n] attributes or NULL. Loops of the graph are left out, and every node gets one of its
   own with the mean attributes of the edges that enter it: a lone node gets its own h.
   Names: lin.weight, att_src, att_dst, att_edge, lin_edge.weight, bias. */
typedef struct eqnn_gat_opts {
    int heads;                /* default 1                                                       */
    int mean;                 /* of the heads, [nodes, channels]; default side by side           */
    double slope;             /* of the leaky relu; default 0.2                                  */
    int given_edges;          /* the graph as it is, no loops left out or put in                 */
    int no_bias;
    eqnn_tensor **weights;    /* gets the softmax [edges + loops, heads] by (target, source)     */
} eqnn_gat_opts;
EQNN_API eqnn_tensor *eqnn_gat_conv(eqnn_tensor *x, eqnn_tensor *attributes, const eqnn_graph *g,
                                    const char *name, int channels, const eqnn_gat_opts *opts);

/* The study's graph network, a baseline that is not equivariant: harmonics r^l Y are the attributes
   of edges and, summed, the features of nodes; two graph attentions ("conv1", "conv2") and a
   gelu network ("head.0", "head.1"). Invariant under translations only. */
typedef struct eqnn_gnn_opts {
    int channels, heads;      /* of the attentions; default 256, 4                               */
    int hidden, out;          /* default 256, 3                                                  */
    int lmax;                 /* default 3 (negative: 0)                                         */
    double neighbours;        /* sums are divided by its square root; default 6                  */
    eqnn_tensor *x;           /* [nodes, n] more features beside the sums; default none          */
    eqnn_tensor *edge_scalars; /* [edges, n] more attributes of the edges; default none          */
} eqnn_gnn_opts;
EQNN_API eqnn_tensor *eqnn_gnn(eqnn_tensor *pos, const eqnn_graph *g, const char *name,
                               const eqnn_gnn_opts *opts);

#endif /* EQNN_H */
#endif /* EQNN__KERNEL_PASS */

#if defined(EQNN_IMPLEMENTATION) && !defined(EQNN__KERNEL_PASS) && !defined(EQNN__IMPLEMENTED)
#define EQNN__IMPLEMENTED
#define EQNN__IMPLEMENTING

/* ----------------------------------------------------------------------------------------------
   1 >>configuration
   ---------------------------------------------------------------------------------------------- */

#include <float.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif

/* gcc -O2 compiles this file in two thirds of the time when it leaves out the passes that find
   nothing in loops vectorised by hand; measured, they run no slower. */
#if defined(__GNUC__) && !defined(__clang__) && !defined(__CUDACC__) && defined(__OPTIMIZE__)
#define EQNN__QUICK
#pragma GCC push_options
#pragma GCC optimize("O1", "align-functions", "align-loops", "no-tree-dominator-opts", \
                     "no-tree-bit-ccp", "no-tree-copy-prop", "no-tree-dse", "no-dse", "no-tree-pta")
#endif

#ifndef EQNN_FILE
#define EQNN_FILE "eqnn.h" /* how this header names itself; define it when you rename the file */
#endif
#ifndef EQNN_ASSERT
#define EQNN_ASSERT(condition) ((void)0) /* our own mistakes only; define as assert to see them */
#endif

#if defined(__GNUC__) || defined(__clang__)
#define EQNN_RESTRICT __restrict__
#else
#define EQNN_RESTRICT
#endif

#if defined(__SANITIZE_ADDRESS__)
#define EQNN__ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define EQNN__ASAN 1
#endif
#endif
#ifdef EQNN__ASAN
#ifdef __cplusplus
extern "C" {
#endif
void __asan_poison_memory_region(void const volatile *address, size_t size);
void __asan_unpoison_memory_region(void const volatile *address, size_t size);
#ifdef __cplusplus
}
#endif
#endif

#define EQNN__ALIGN ((size_t)64) /* of all numbers: unaligned vectors cost half the speed */
#define EQNN__PI 3.14159265358979323846

/* ----------------------------------------------------------------------------------------------
   2 >>context
   ---------------------------------------------------------------------------------------------- */

/* What sections further up keep in the context. */
struct eqnn__node;
struct eqnn__weight;
struct eqnn__params;
struct eqnn__once;
struct eqnn__kernels;
struct eqnn__tables;
struct eqnn__product_cache;
struct eqnn__w3j_cache;
struct eqnn__groups;
typedef struct eqnn__sweep eqnn__sweep;

/* Memory in chunks that never move, filled from the bottom; a reset keeps the chunks, so that a
   step of the same shape as the last finds all its memory there. */
#define EQNN__CHUNKS 64
typedef struct eqnn__arena {
    char *chunk[EQNN__CHUNKS];
    size_t size[EQNN__CHUNKS];
    size_t chunks, at;       /* chunks there are; the one being filled   */
    size_t used;             /* bytes of that chunk                      */
    size_t below, reserved;  /* bytes of the chunks before it; of all    */
    size_t peak;
} eqnn__arena;

/* Records of one size (tensor headers, nodes), numbered; chunk k holds EQNN__FIRST << k of them. */
#define EQNN__FIRST ((size_t)128)
typedef struct eqnn__pool {
    char *chunk[40];
    size_t count, item; /* records in use; bytes of one */
} eqnn__pool;

/* Memory given back during an unrecorded sweep, by size. */
#define EQNN__BINS 64
typedef struct eqnn__free { struct eqnn__free *next; size_t bytes; } eqnn__free;
typedef struct eqnn__recycler { eqnn__free *bin[EQNN__BINS]; } eqnn__recycler;

typedef struct eqnn__device {
    int threads;         /* OpenMP threads that loops may use          */
    int flag;            /* set by check when a number is not finite   */
    void *scratch;       /* working memory for the call                */
    size_t scratch_size; /* bytes                                      */
    const struct eqnn__loops *loops; /* the processor's innermost loops */
} eqnn__device;

enum { EQNN__ALIVE = 0x51, EQNN__DEAD = 0xdd };

struct eqnn_tensor {
    eqnn_ctx *ctx;
    eqnn_real *data;
    int rows, cols;
    const eqnn_label *label;     /* NULL: invariant numbers                                   */
    struct eqnn__node *node;     /* what made it; NULL: a constant or a leaf                  */
    int out;                     /* which of the node's outputs it is                         */
    int state;                   /* EQNN__ALIVE or EQNN__DEAD                                 */
    size_t born;                 /* nodes there were when it was made                         */
    struct eqnn__weight *weight; /* of a parameter, else NULL                                 */
    eqnn_tensor *base;           /* whose numbers these are, when it is a view                */
    int refs, recyclable;        /* in an unrecorded sweep: holders; memory can be given back */
    int target;                  /* in a sweep: 1 + its place among the wanted ones           */
};

typedef struct eqnn__node {
    int op, n_in, n_out;
    eqnn_tensor **in, **out;
    const void *aux;              /* what else the operation needs                             */
    int i[4];
    double p[2];
    size_t index, slot;           /* place on the tape; number of its first output             */
    int reaches;                  /* leads to a trainable parameter                            */
    eqnn_tensor *few[4];          /* room for in and out of most                               */
} eqnn__node;

struct eqnn_ctx {
    char error[512];
    int failed;
    const char *op;                 /* the operation at work, for sentences              */
    eqnn_alloc alloc;
    void *alloc_user;
    char *buffer;                   /* the caller's buffer and how far it is used        */
    size_t buffer_size, buffer_used;
    eqnn__arena step, lasting;
    eqnn__pool header[2], node;     /* headers alternate, so that stale ones are seen    */
    int side;                       /* which header pool this step uses                  */
    size_t slots;                   /* outputs of all nodes so far                       */
    eqnn__recycler *recycler;       /* set during an unrecorded sweep                    */
    int recording, training, in_rule;
    int own_tape;                   /* inside a block that is a tape of its own          */
    eqnn_tensor **noted;            /* parameters that a checkpointed block touches      */
    int notes, note_start, note_room, noting;
    uint64_t seed, tick;
    struct eqnn__label_table *labels;
    eqnn_ctx *owner; /* whose parameters are used: this one's or another's */
    char scope[512]; /* "layers.0.first." with hashes of each prefix       */
    uint64_t scope_hash[33];
    int scope_length[33], scope_depth;
    struct eqnn__params *params;
    struct eqnn__once *onces;       /* what was made of parameters in this step          */
    struct eqnn__tables *tables;
    struct eqnn__product_cache *products;
    struct eqnn__w3j_cache *w3j;
    struct eqnn__groups *groups; /* of eqnn_groups.h */
    const struct eqnn__kernels *k;
    eqnn__device device;
};

/* --- errors --- */

static eqnn_tensor *eqnn__fail(eqnn_ctx *c, const char *format, ...) EQNN__PRINTF(2, 3);

static void eqnn__fail_list(eqnn_ctx *c, const char *format, va_list list)
{
    if (!c || c->failed) return;
    c->failed = 1;
    vsnprintf(c->error, sizeof c->error, format, list);
}

static eqnn_tensor *eqnn__fail(eqnn_ctx *c, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    eqnn__fail_list(c, format, list);
    va_end(list);
    return NULL;
}

EQNN_API eqnn_tensor *eqnn_fail(eqnn_ctx *c, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    eqnn__fail_list(c, format, list);
    va_end(list);
    return NULL;
}

EQNN_API const char *eqnn_error(const eqnn_ctx *c)
{
    if (!c) return "no context: eqnn_make found no memory";
    return c->failed ? c->error : NULL;
}

EQNN_API void eqnn_clear(eqnn_ctx *c)
{
    if (!c) return;
    c->failed = 0;
    c->error[0] = 0;
    c->scope_depth = 0;
    c->scope[0] = 0;
}

/* --- where memory comes from --- */

static void *eqnn__malloc(void *user, void *old, size_t old_size, size_t new_size)
{
    (void)user;
    (void)old_size;
    if (new_size) return realloc(old, new_size);
    free(old);
    return NULL;
}

/* The caller's one buffer: filled upwards; only the topmost piece can grow, shrink or be freed. */
static void *eqnn__buffer_alloc(eqnn_ctx *c, void *old, size_t old_size, size_t new_size)
{
    size_t last = (size_t)((char *)old - c->buffer);
    int top = old && last + old_size == c->buffer_used;
    size_t start = top ? last : (c->buffer_used + EQNN__ALIGN - 1) / EQNN__ALIGN * EQNN__ALIGN;
    if (!new_size) {
        if (top) c->buffer_used = last;
        return NULL;
    }
    if (start > c->buffer_size || new_size > c->buffer_size - start) return NULL;
    c->buffer_used = start + new_size;
    if (old && !top) memcpy(c->buffer + start, old, old_size < new_size ? old_size : new_size);
    return c->buffer + start;
}

static void *eqnn__try_heap(eqnn_ctx *c, void *old, size_t old_size, size_t new_size)
{
    if (c->buffer) return eqnn__buffer_alloc(c, old, old_size, new_size);
    return c->alloc(c->alloc_user, old, old_size, new_size);
}

/* Grows, shrinks or (new_size 0) frees a piece of the caller's memory; on failure the old stays. */
static void *eqnn__heap(eqnn_ctx *c, void *old, size_t old_size, size_t new_size)
{
    void *p = eqnn__try_heap(c, old, old_size, new_size);
    if (!p && new_size)
        eqnn__fail(c, "%s: out of memory: %zu bytes asked for", c->op ? c->op : "eqnn", new_size);
    return p;
}

/* --- arenas --- */

static size_t eqnn__round(size_t bytes)
{
    return (bytes + EQNN__ALIGN - 1) / EQNN__ALIGN * EQNN__ALIGN;
}

static char *eqnn__aligned(char *p)
{
    return p + (EQNN__ALIGN - (size_t)(uintptr_t)p % EQNN__ALIGN) % EQNN__ALIGN;
}

/* A new chunk behind the last: half of what is reserved already, or what is asked for if that is
   more or if there is not so much. */
static int eqnn__arena_grow(eqnn_ctx *c, eqnn__arena *a, size_t bytes)
{
    size_t want = a->reserved / 2 > 65536 ? a->reserved / 2 : 65536;
    size_t need = bytes + EQNN__ALIGN;
    if (need < bytes || a->chunks == EQNN__CHUNKS) {
        eqnn__fail(c, "%s: out of memory: %zu bytes asked for", c->op ? c->op : "eqnn", bytes);
        return 0;
    }
    if (want < need) want = need;
    char *p = (char *)eqnn__try_heap(c, NULL, 0, want);
    if (!p && want > need) p = (char *)eqnn__try_heap(c, NULL, 0, want = need);
    if (!p) {
        eqnn__fail(c, "%s: out of memory: %zu bytes asked for, %zu in use", c->op ? c->op : "eqnn",
                   bytes, a->below + a->used);
        return 0;
    }
    a->chunk[a->chunks] = p;
    a->size[a->chunks] = want;
    a->chunks++;
    a->reserved += want;
    return 1;
}

/* Finds room in the present chunk or a later one; the start is aligned. */
static void *eqnn__arena_alloc(eqnn_ctx *c, eqnn__arena *a, size_t bytes)
{
    size_t need = eqnn__round(bytes ? bytes : 1);
    if (need < bytes) return eqnn__fail(c, "%s: a size overflows", c->op ? c->op : "eqnn");
    for (;;) {
        if (a->at < a->chunks) {
            char *base = a->chunk[a->at];
            size_t start = (size_t)(eqnn__aligned(base + a->used) - base);
            if (start <= a->size[a->at] && need <= a->size[a->at] - start) {
                a->used = start + need;
                if (a->below + a->used > a->peak) a->peak = a->below + a->used;
#ifdef EQNN__ASAN
                __asan_unpoison_memory_region(base + start, need);
#endif
                return base + start;
            }
            if (a->at + 1 < a->chunks) {
                a->below += a->size[a->at++];
                a->used = 0;
                continue;
            }
        }
        if (!eqnn__arena_grow(c, a, need)) return NULL;
        if (a->chunks > 1) a->below += a->size[a->at++];
        a->used = 0;
    }
}

/* Forgets everything behind (at, used). */
static void eqnn__arena_cut(eqnn__arena *a, size_t at, size_t used)
{
#if defined(EQNN__ASAN) || defined(EQNN_DEBUG)
    for (size_t k = at; k <= a->at && k < a->chunks; k++) {
        size_t from = k == at ? used : 0, to = k == a->at ? a->used : a->size[k];
        if (to <= from) continue;
#ifdef EQNN__ASAN
        __asan_unpoison_memory_region(a->chunk[k] + from, to - from);
#endif
        memset(a->chunk[k] + from, 0xdd, to - from);
#ifdef EQNN__ASAN
        __asan_poison_memory_region(a->chunk[k] + from, to - from);
#endif
    }
#endif
    while (a->at > at) a->below -= a->size[--a->at];
    a->used = used;
}

static void eqnn__arena_free(eqnn_ctx *c, eqnn__arena *a)
{
    while (a->chunks > 0) {
        a->chunks--;
#ifdef EQNN__ASAN
        __asan_unpoison_memory_region(a->chunk[a->chunks], a->size[a->chunks]);
#endif
        eqnn__try_heap(c, a->chunk[a->chunks], a->size[a->chunks], 0);
    }
}

static void *eqnn__keep_alloc(eqnn_ctx *c, size_t bytes)
{
    void *p = eqnn__arena_alloc(c, &c->lasting, bytes);
    if (p) memset(p, 0, bytes);
    return p;
}

/* During an unrecorded sweep, memory of the right size that was given back is used first. */
static void *eqnn__step_alloc(eqnn_ctx *c, size_t bytes)
{
    if (c->recycler) {
        size_t need = eqnn__round(bytes ? bytes : 1);
        eqnn__free **at = &c->recycler->bin[need / EQNN__ALIGN % EQNN__BINS];
        for (; *at; at = &(*at)->next)
            if ((*at)->bytes == need) {
                void *p = *at;
                *at = (*at)->next;
                return p;
            }
    }
    return eqnn__arena_alloc(c, &c->step, bytes);
}

static void eqnn__recycle(eqnn_ctx *c, void *p, size_t bytes)
{
    size_t need = eqnn__round(bytes ? bytes : 1);
    eqnn__free *f = (eqnn__free *)p, **bin = &c->recycler->bin[need / EQNN__ALIGN % EQNN__BINS];
    f->bytes = need;
    f->next = *bin;
    *bin = f;
}

static EQNN__MAYBE_UNUSED char *eqnn__keep_string(eqnn_ctx *c, const char *s)
{
    size_t n = strlen(s) + 1;
    char *p = (char *)eqnn__keep_alloc(c, n);
    if (p) memcpy(p, s, n);
    return p;
}

/* --- pools of records --- */

static void *eqnn__pool_at(const eqnn__pool *p, size_t i)
{
    size_t k = 0, first = 0, size = EQNN__FIRST;
    while (i >= first + size) {
        first += size;
        size *= 2;
        k++;
    }
    return p->chunk[k] + (i - first) * p->item;
}

static void *eqnn__pool_next(eqnn_ctx *c, eqnn__pool *p)
{
    size_t k = 0, first = 0, size = EQNN__FIRST;
    while (p->count >= first + size) {
        first += size;
        size *= 2;
        k++;
    }
    if (!p->chunk[k]) {
        p->chunk[k] = (char *)eqnn__heap(c, NULL, 0, size * p->item);
        if (!p->chunk[k]) return NULL;
        memset(p->chunk[k], 0, size * p->item);
    }
    return p->chunk[k] + (p->count++ - first) * p->item;
}

static void eqnn__pool_free(eqnn_ctx *c, eqnn__pool *p)
{
    for (int k = 39; k >= 0; k--)
        if (p->chunk[k]) eqnn__try_heap(c, p->chunk[k], (EQNN__FIRST << k) * p->item, 0);
}

/* --- names and random streams --- */

#define EQNN__HASH UINT64_C(0xcbf29ce484222325)

/* FNV-1a with a final mix at the end of each use as a key */
static uint64_t eqnn__hash(uint64_t h, const void *bytes, size_t n)
{
    const unsigned char *b = (const unsigned char *)bytes;
    for (size_t i = 0; i < n; i++) h = (h ^ b[i]) * UINT64_C(0x100000001b3);
    return h;
}

/* Key of the random stream of a name: seed, scope and name, and nothing else. */
static uint64_t eqnn__name_key(eqnn_ctx *c, const char *name)
{
    uint64_t h = eqnn__hash(EQNN__HASH ^ (c->seed * UINT64_C(0x9e3779b97f4a7c15)), c->scope,
                            strlen(c->scope));
    return eqnn__hash(h, name, strlen(name));
}

EQNN_API uint64_t eqnn_seed(const eqnn_ctx *c)
{
    return c ? c->seed : 0;
}

EQNN_API int eqnn_training(eqnn_ctx *c, int on)
{
    if (!c) return 0;
    int old = c->training;
    c->training = on;
    return old;
}

EQNN_API int eqnn_recording(eqnn_ctx *c, int on)
{
    if (!c) return 0;
    int old = c->recording;
    c->recording = on;
    return old;
}

EQNN_API const char *eqnn_format(eqnn_ctx *c, const char *format, ...)
{
    va_list list;
    if (!c) return "";
    va_start(list, format);
    int n = vsnprintf(NULL, 0, format, list);
    va_end(list);
    if (n < 0) return "";
    char *s = (char *)eqnn__arena_alloc(c, &c->step, (size_t)n + 1);
    if (!s) return "";
    va_start(list, format);
    vsnprintf(s, (size_t)n + 1, format, list);
    va_end(list);
    return s;
}

EQNN_API eqnn_memory eqnn_memory_use(const eqnn_ctx *c)
{
    eqnn_memory m;
    memset(&m, 0, sizeof m);
    if (!c) return m;
    m.step = c->step.below + c->step.used;
    m.step_peak = c->step.peak;
    m.step_reserved = c->step.reserved;
    m.lasting = c->lasting.below + c->lasting.used;
    m.tape_nodes = c->node.count;
    return m;
}

/* --- life of a context --- */

static void eqnn__device_begin(eqnn_ctx *c, int lanes);
static void eqnn__params_free(eqnn_ctx *c);
static void eqnn__params_reset(eqnn_ctx *c);
static int eqnn__params_updates(const eqnn_ctx *c);
static void eqnn__onces_drop(eqnn_ctx *c);
static void eqnn__params_rewind(eqnn_ctx *c, int updates);
static eqnn_tensor *eqnn__new(eqnn_ctx *c, int rows, int cols);

static int eqnn__threads_default(void)
{
#ifdef _OPENMP
    return omp_get_max_threads();
#else
    return 1;
#endif
}

/* The context itself is the first thing in the caller's memory. */
static eqnn_ctx *eqnn__ctx_alloc(const eqnn_opts *o)
{
    eqnn_ctx start, *c;
    memset(&start, 0, sizeof start);
    start.alloc = o->alloc ? o->alloc : eqnn__malloc;
    start.alloc_user = o->alloc_user;
    if (o->buffer) {
        start.buffer = eqnn__aligned((char *)o->buffer);
        size_t lost = (size_t)(start.buffer - (char *)o->buffer);
        start.buffer_size = o->buffer_size > lost ? o->buffer_size - lost : 0;
    }
    c = (eqnn_ctx *)eqnn__try_heap(&start, NULL, 0, sizeof *c);
    if (c) *c = start;
    return c;
}

EQNN_API eqnn_ctx *eqnn_make(const eqnn_opts *opts)
{
    eqnn_opts o;
    memset(&o, 0, sizeof o);
    if (opts) o = *opts;
    eqnn_ctx *c = eqnn__ctx_alloc(&o);
    if (!c) return NULL;
    c->seed = o.seed;
    c->recording = 1;
    c->owner = o.weights_of ? o.weights_of->owner : c;
    c->header[0].item = c->header[1].item = sizeof(eqnn_tensor);
    c->node.item = sizeof(eqnn__node);
    c->device.threads = o.threads > 0 ? o.threads : eqnn__threads_default();
    c->scope_hash[0] = EQNN__HASH;
    eqnn__device_begin(c, o.lanes);
    return c;
}

EQNN_API void eqnn_free(eqnn_ctx *c)
{
    if (!c) return;
    eqnn__params_free(c);
    eqnn__try_heap(c, c->noted, (size_t)c->note_room * sizeof(void *), 0);
    eqnn__pool_free(c, &c->node);
    eqnn__pool_free(c, &c->header[1]);
    eqnn__pool_free(c, &c->header[0]);
    eqnn__arena_free(c, &c->step);
    eqnn__arena_free(c, &c->lasting);
    if (!c->buffer) c->alloc(c->alloc_user, c, sizeof *c, 0);
}

static void eqnn__headers_cut(eqnn_ctx *c, size_t count)
{
    eqnn__pool *p = &c->header[c->side];
    for (size_t i = count; i < p->count; i++)
        ((eqnn_tensor *)eqnn__pool_at(p, i))->state = EQNN__DEAD;
    p->count = count;
}

static void eqnn__nodes_cut(eqnn_ctx *c, size_t count)
{
    if (count < c->node.count) c->slots = ((eqnn__node *)eqnn__pool_at(&c->node, count))->slot;
    c->node.count = count;
}

EQNN_API void eqnn_tick(eqnn_ctx *c)
{
    if (c) c->tick++;
}

/* Headers alternate between two pools, so that a tensor kept one step too long is found dead. */
EQNN_API void eqnn_reset(eqnn_ctx *c)
{
    if (!c) return;
    eqnn__params_reset(c);
    eqnn__headers_cut(c, 0);
    eqnn__onces_drop(c);
    c->side = !c->side;
    eqnn__nodes_cut(c, 0);
    c->slots = 0;
    eqnn__arena_cut(&c->step, 0, 0);
    c->tick++;
}

EQNN_API eqnn_mark eqnn_mark_make(eqnn_ctx *c)
{
    eqnn_mark m;
    memset(&m, 0, sizeof m);
    if (!c) return m;
    m.ctx = c;
    m.chunk = c->step.at;
    m.used = c->step.used;
    m.headers = c->header[c->side].count;
    m.nodes = c->node.count;
    m.updates = eqnn__params_updates(c);
    return m;
}

EQNN_API eqnn_tensor *eqnn_rewind(eqnn_mark m, eqnn_tensor *y)
{
    eqnn_ctx *c = m.ctx;
    if (!c) return NULL;
    eqnn_tensor old;
    int keep = y && y->state == EQNN__ALIVE;
    if (keep) old = *y;
    eqnn__params_rewind(c, m.updates);
    eqnn__headers_cut(c, m.headers);
    eqnn__onces_drop(c);
    eqnn__nodes_cut(c, m.nodes);
#ifdef EQNN__ASAN
    eqnn_real *copy = keep ? (eqnn_real *)malloc(
                                 (size_t)old.rows * (size_t)old.cols * sizeof *copy + 1)
                           : NULL;
    if (copy) memcpy(copy, old.data, (size_t)old.rows * (size_t)old.cols * sizeof *copy);
    if (copy) old.data = copy;
#endif
    eqnn__arena_cut(&c->step, m.chunk, m.used);
    eqnn_tensor *z = keep ? eqnn__new(c, old.rows, old.cols) : NULL;
    if (z) memmove(z->data, old.data, (size_t)old.rows * (size_t)old.cols * sizeof *z->data);
    if (z) z->label = old.label;
#ifdef EQNN__ASAN
    free(copy);
#endif
    return z;
}

/* ----------------------------------------------------------------------------------------------
   3 >>tensors
   ---------------------------------------------------------------------------------------------- */

struct eqnn_ints {
    eqnn_ctx *ctx;
    int count, range;
    int *v;
    int *first, *list; /* the inverse: list[first[k]..first[k+1]-1] are the places of k, or NULL */
    int keep;
};

/* --- checks at the door of every operation --- */

/* 1 when x cannot be used: then the operation returns NULL at once. */
static int eqnn__bad(const eqnn_tensor *x, const char *op)
{
    if (!x) return 1;
    if (x->state != EQNN__ALIVE) {
        eqnn__fail(x->ctx, "%s: a tensor of an earlier step is used; eqnn_keep makes it last", op);
        return 1;
    }
    x->ctx->op = op;
    return x->ctx->failed;
}

static int eqnn__bad2(const eqnn_tensor *a, const eqnn_tensor *b, const char *op)
{
    if (!a || !b) {
        eqnn_ctx *c = a ? a->ctx : b ? b->ctx : NULL;
        if (c) eqnn__fail(c, "%s: a tensor is missing (NULL)", op);
        return 1;
    }
    if (eqnn__bad(a, op) || eqnn__bad(b, op)) return 1;
    if (a->ctx != b->ctx) {
        eqnn__fail(a->ctx, "%s: the tensors belong to two contexts", op);
        return 1;
    }
    return 0;
}

/* --- making tensors --- */

static size_t eqnn__count(const eqnn_tensor *x)
{
    return (size_t)x->rows * (size_t)x->cols;
}

/* Bytes of [rows,cols] numbers, 0 when the sizes make no sense (the error is set). */
static size_t eqnn__bytes(eqnn_ctx *c, int rows, int cols)
{
    if (rows < 0 || cols < 0 || (cols > 0 && (size_t)rows > SIZE_MAX / 16 / (size_t)cols)) {
        eqnn__fail(c, "%s: [%d,%d] is no size of a tensor", c->op ? c->op : "eqnn", rows, cols);
        return 0;
    }
    return (size_t)rows * (size_t)cols * sizeof(eqnn_real) + sizeof(eqnn_real);
}

/* A header over numbers that exist. */
static eqnn_tensor *eqnn__header(eqnn_ctx *c, int rows, int cols, eqnn_real *data)
{
    eqnn_tensor *x = (eqnn_tensor *)eqnn__pool_next(c, &c->header[c->side]);
    if (!x) return NULL;
    memset(x, 0, sizeof *x);
    x->ctx = c;
    x->data = data;
    x->rows = rows;
    x->cols = cols;
    x->state = EQNN__ALIVE;
    x->born = c->node.count;
    return x;
}

/* A step's tensor; its numbers are not set. */
static eqnn_tensor *eqnn__new(eqnn_ctx *c, int rows, int cols)
{
    size_t bytes = eqnn__bytes(c, rows, cols);
    if (!bytes || c->failed) return NULL;
    eqnn_real *data = (eqnn_real *)eqnn__step_alloc(c, bytes);
    eqnn_tensor *x = data ? eqnn__header(c, rows, cols, data) : NULL;
    if (x) x->recyclable = c->recycler != NULL;
    return x;
}

/* A tensor that outlasts resets, zeroed. */
static eqnn_tensor *eqnn__new_kept(eqnn_ctx *c, int rows, int cols)
{
    size_t bytes = eqnn__bytes(c, rows, cols);
    if (!bytes || c->failed) return NULL;
    eqnn_real *data = (eqnn_real *)eqnn__keep_alloc(c, bytes);
    eqnn_tensor *x = data ? (eqnn_tensor *)eqnn__keep_alloc(c, sizeof *x) : NULL;
    if (!x) return NULL;
    x->ctx = c;
    x->data = data;
    x->rows = rows;
    x->cols = cols;
    x->state = EQNN__ALIVE;
    return x;
}

EQNN_API eqnn_tensor *eqnn_from(eqnn_ctx *c, int rows, int cols, const eqnn_real *values)
{
    if (!c || c->failed) return NULL;
    c->op = "from";
    eqnn_tensor *x = eqnn__new(c, rows, cols);
    if (x && eqnn__count(x) && !values)
        return eqnn__fail(c, "from: the numbers are missing (NULL)");
    if (x && values) memcpy(x->data, values, eqnn__count(x) * sizeof *values);
    return x;
}

EQNN_API eqnn_tensor *eqnn_from_double(eqnn_ctx *c, int rows, int cols, const double *values)
{
    if (!c || c->failed) return NULL;
    c->op = "from_double";
    eqnn_tensor *x = eqnn__new(c, rows, cols);
    if (x && eqnn__count(x) && !values)
        return eqnn__fail(c, "from_double: the numbers are missing (NULL)");
    for (size_t i = 0; x && i < eqnn__count(x); i++) x->data[i] = (eqnn_real)values[i];
    return x;
}

EQNN_API eqnn_tensor *eqnn_full(eqnn_ctx *c, int rows, int cols, double value)
{
    if (!c || c->failed) return NULL;
    c->op = "full";
    eqnn_tensor *x = eqnn__new(c, rows, cols);
    size_t n = x ? eqnn__count(x) : 0;
    if (n && value == 0) memset(x->data, 0, n * sizeof *x->data);
    for (size_t i = 0; i < n && value != 0; i++) x->data[i] = (eqnn_real)value;
    return x;
}

EQNN_API eqnn_tensor *eqnn_zeros(eqnn_ctx *c, int rows, int cols)
{
    return eqnn_full(c, rows, cols, 0);
}

EQNN_API eqnn_tensor *eqnn_detach(eqnn_tensor *x)
{
    if (eqnn__bad(x, "detach")) return NULL;
    eqnn_tensor *y = eqnn_from(x->ctx, x->rows, x->cols, x->data);
    if (y) y->label = x->label;
    return y;
}

EQNN_API eqnn_tensor *eqnn_keep(eqnn_tensor *x)
{
    if (eqnn__bad(x, "keep")) return NULL;
    eqnn_tensor *y = eqnn__new_kept(x->ctx, x->rows, x->cols);
    if (!y) return NULL;
    memcpy(y->data, x->data, eqnn__count(x) * sizeof *x->data);
    y->label = x->label;
    return y;
}

/* --- reading them --- */

EQNN_API int eqnn_rows(const eqnn_tensor *x) { return x ? x->rows : 0; }
EQNN_API int eqnn_cols(const eqnn_tensor *x) { return x ? x->cols : 0; }
EQNN_API const eqnn_real *eqnn_data(const eqnn_tensor *x) { return x ? x->data : NULL; }
EQNN_API eqnn_ctx *eqnn_context(const eqnn_tensor *x) { return x ? x->ctx : NULL; }
EQNN_API const eqnn_label *eqnn_label_of(const eqnn_tensor *x) { return x ? x->label : NULL; }

EQNN_API double eqnn_at(const eqnn_tensor *x, int row, int col)
{
    if (eqnn__bad(x, "at")) return NAN;
    if (row < 0 || row >= x->rows || col < 0 || col >= x->cols) {
        eqnn__fail(x->ctx, "at: (%d,%d) lies outside [%d,%d]", row, col, x->rows, x->cols);
        return NAN;
    }
    return (double)x->data[(size_t)row * (size_t)x->cols + (size_t)col];
}

EQNN_API double eqnn_value(const eqnn_tensor *x)
{
    if (eqnn__bad(x, "value")) return NAN;
    if (x->rows == 1 && x->cols == 1) return (double)x->data[0];
    eqnn__fail(x->ctx, "value: [%d,%d] is not one number; use eqnn_sum, eqnn_at or eqnn_read",
               x->rows, x->cols);
    return NAN;
}

EQNN_API int eqnn_read(const eqnn_tensor *x, eqnn_real *out)
{
    if (eqnn__bad(x, "read")) return 0;
    memcpy(out, x->data, eqnn__count(x) * sizeof *out);
    return 1;
}

EQNN_API void eqnn_print(const eqnn_tensor *x, const char *title, FILE *file)
{
    if (!x) {
        fprintf(file, "%s: none\n", title);
        return;
    }
    fprintf(file, "%s [%d,%d] %s\n", title, x->rows, x->cols, x->label ? x->label->name : "");
    for (int r = 0; r < x->rows && r < 8; r++) {
        for (int k = 0; k < x->cols && k < 12; k++)
            fprintf(file, " %10.5g", (double)x->data[(size_t)r * (size_t)x->cols + (size_t)k]);
        fprintf(file, x->cols > 12 ? " ...\n" : "\n");
    }
    if (x->rows > 8) fprintf(file, " ...\n");
}

/* --- integers --- */

static void *eqnn__ints_alloc(eqnn_ctx *c, size_t bytes, int keep)
{
    return keep ? eqnn__keep_alloc(c, bytes) : eqnn__arena_alloc(c, &c->step, bytes);
}

/* The inverse, by counting. */
static int eqnn__ints_invert(eqnn_ints *x)
{
    size_t n = (size_t)x->count, m = (size_t)x->range;
    x->first = (int *)eqnn__ints_alloc(x->ctx, (m + 2) * sizeof(int), x->keep);
    x->list = (int *)eqnn__ints_alloc(x->ctx, n * sizeof(int), x->keep);
    if (!x->first || !x->list) return 0;
    memset(x->first, 0, (m + 2) * sizeof(int));
    for (size_t i = 0; i < n; i++) x->first[x->v[i] + 2]++;
    for (size_t k = 2; k < m + 2; k++) x->first[k] += x->first[k - 1];
    for (size_t i = 0; i < n; i++) x->list[x->first[x->v[i] + 1]++] = (int)i;
    return 1;
}

EQNN_API eqnn_ints *eqnn_ints_make(eqnn_ctx *c, int count, const int *values, int range, int keep)
{
    if (!c || c->failed) return NULL;
    c->op = "ints";
    if (count < 0 || range < 0 || (count > 0 && !values)) {
        eqnn__fail(c, "ints: %d integers of range %d make no sense", count, range);
        return NULL;
    }
    for (int i = 0; range > 0 && i < count; i++)
        if (values[i] < 0 || values[i] >= range) {
            eqnn__fail(c, "ints: number %d is %d, outside 0..%d", i, values[i], range - 1);
            return NULL;
        }
    eqnn_ints *x = (eqnn_ints *)eqnn__ints_alloc(c, sizeof *x, keep);
    int *v = (int *)eqnn__ints_alloc(c, (size_t)count * sizeof(int), keep);
    if (!x || !v) return NULL;
    memset(x, 0, sizeof *x);
    if (count) memcpy(v, values, (size_t)count * sizeof(int));
    x->ctx = c;
    x->count = count;
    x->range = range;
    x->v = v;
    x->keep = keep;
    return range == 0 || eqnn__ints_invert(x) ? x : NULL;
}

EQNN_API int eqnn_ints_count(const eqnn_ints *i) { return i ? i->count : 0; }
EQNN_API const int *eqnn_ints_data(const eqnn_ints *i) { return i ? i->v : NULL; }

/* --- labels --- */

typedef struct eqnn__type_entry { eqnn_type type; struct eqnn__type_entry *next; } eqnn__type_entry;
typedef struct eqnn__label_entry {
    eqnn_label label;
    uint64_t hash;
    struct eqnn__label_entry *next;
} eqnn__label_entry;
#define EQNN__LABEL_BINS 256
typedef struct eqnn__label_table {
    eqnn__type_entry *types;
    eqnn__label_entry *bin[EQNN__LABEL_BINS];
} eqnn__label_table;

static eqnn__label_table *eqnn__labels(eqnn_ctx *c)
{
    if (!c->labels) c->labels = (eqnn__label_table *)eqnn__keep_alloc(c, sizeof *c->labels);
    return c->labels;
}

/* The one type of that content in this context. */
static const eqnn_type *eqnn__type(eqnn_ctx *c, int kind, int l, int p, int dim, const char *name,
                                   const void *user)
{
    eqnn__label_table *t = eqnn__labels(c);
    if (!t) return NULL;
    for (eqnn__type_entry *e = t->types; e; e = e->next)
        if (e->type.kind == kind && e->type.l == l && e->type.p == p && e->type.dim == dim &&
            e->type.user == user)
            return &e->type;
    eqnn__type_entry *e = (eqnn__type_entry *)eqnn__keep_alloc(c, sizeof *e);
    char *text = e ? eqnn__keep_string(c, name) : NULL;
    if (!text) return NULL;
    e->type.kind = kind;
    e->type.l = l;
    e->type.p = p;
    e->type.dim = dim;
    e->type.name = text;
    e->type.user = user;
    e->next = t->types;
    t->types = e;
    return &e->type;
}

static int eqnn__blocks_same(const eqnn_block *a, const eqnn_block *b, int n)
{
    for (int i = 0; i < n; i++)
        if (a[i].copies != b[i].copies || a[i].type != b[i].type) return 0;
    return 1;
}

/* "16x0e+8x1o" */
static char *eqnn__label_name(eqnn_ctx *c, const eqnn_block *blocks, int n)
{
    size_t room = 1;
    for (int i = 0; i < n; i++) room += strlen(blocks[i].type->name) + 16;
    char *s = (char *)eqnn__keep_alloc(c, room), *at = s;
    for (int i = 0; s && i < n; i++)
        at += snprintf(at, room - (size_t)(at - s), "%s%dx%s", i ? "+" : "", blocks[i].copies,
                       blocks[i].type->name);
    return s;
}

/* Copies the blocks into a new label and adds up their columns. */
static int eqnn__label_fill(eqnn_ctx *c, eqnn_label *label, const eqnn_block *blocks, int n)
{
    eqnn_block *own = (eqnn_block *)eqnn__keep_alloc(c, ((size_t)n + 1) * sizeof *own);
    char *name = own ? eqnn__label_name(c, blocks, n) : NULL;
    if (!name) return 0;
    int64_t cols = 0, copies = 0;
    for (int i = 0; i < n; i++) {
        own[i] = blocks[i];
        own[i].start = (int)cols;
        cols += (int64_t)blocks[i].copies * blocks[i].type->dim;
        copies += blocks[i].copies;
        if (cols > INT_MAX || copies > INT_MAX) {
            eqnn__fail(c, "label: more columns than an int holds");
            return 0;
        }
    }
    label->blocks = n;
    label->cols = (int)cols;
    label->copies = (int)copies;
    label->block = own;
    label->name = name;
    return 1;
}

/* The one label of that content in this context. */
static const eqnn_label *eqnn__label(eqnn_ctx *c, const eqnn_block *blocks, int n)
{
    eqnn__label_table *t = eqnn__labels(c);
    uint64_t h = EQNN__HASH;
    if (!t) return NULL;
    for (int i = 0; i < n; i++) {
        h = eqnn__hash(h, &blocks[i].copies, sizeof blocks[i].copies);
        h = eqnn__hash(h, &blocks[i].type, sizeof blocks[i].type);
    }
    eqnn__label_entry **bin = &t->bin[h % EQNN__LABEL_BINS];
    for (eqnn__label_entry *e = *bin; e; e = e->next)
        if (e->hash == h && e->label.blocks == n && eqnn__blocks_same(e->label.block, blocks, n))
            return &e->label;
    eqnn__label_entry *e = (eqnn__label_entry *)eqnn__keep_alloc(c, sizeof *e);
    if (!e || !eqnn__label_fill(c, &e->label, blocks, n)) return NULL;
    e->hash = h;
    e->next = *bin;
    *bin = e;
    return &e->label;
}

/* Does a label say no more than no label does: invariant numbers (0e)? */
static int eqnn__invariant(const eqnn_label *a)
{
    for (int i = 0; a && i < a->blocks; i++) {
        const eqnn_type *t = a->block[i].type;
        if (a->block[i].copies > 0 && !(t->kind == EQNN_TYPE_IRREP && t->l == 0 && t->p == 1))
            return 0;
    }
    return 1;
}

/* May functions of one number be applied? To invariant numbers, and to components that a matrix
   group permutes: what is done to each alike commutes with any exchange. */
static int eqnn__permuted(const eqnn_label *a)
{
    for (int i = 0; a && i < a->blocks; i++) {
        const eqnn_type *t = a->block[i].type;
        int scalar = t->kind == EQNN_TYPE_IRREP && t->l == 0;
        if (a->block[i].copies > 0 && !(t->p == 1 && (scalar || t->kind == EQNN_TYPE_REP)))
            return 0;
    }
    return 1;
}

/* Equal content; labels of two contexts are compared block by block. */
static int eqnn__label_same(const eqnn_label *a, const eqnn_label *b)
{
    if (a == b) return 1;
    if (!a || !b || a->blocks != b->blocks) return 0;
    for (int i = 0; i < a->blocks; i++) {
        const eqnn_type *s = a->block[i].type, *t = b->block[i].type;
        if (a->block[i].copies != b->block[i].copies || s->kind != t->kind || s->l != t->l ||
            s->p != t->p || s->dim != t->dim || s->user != t->user)
            return 0;
    }
    return 1;
}

static const char *eqnn__label_text(const eqnn_label *a)
{
    return a ? a->name : "no label";
}

/* ----------------------------------------------------------------------------------------------
   4 >>kernels   The table between mathematics and machine: work on plain arrays, filled below for
                 a processor (and by eqnn_cuda.cuh for a GPU). Nothing above touches raw memory.
                 Entries take the device first, return nothing, never wait, never allocate. On a
                 processor they cut the work and call the inner loops of a second table, which is
                 filled once per instruction set.
   ---------------------------------------------------------------------------------------------- */

/* A matrix read elementwise: element (r, c) is p[r * rs + c * cs]; a stride of 0 stretches. */
typedef struct eqnn__in { const eqnn_real *p; size_t rs, cs; } eqnn__in;

/* Codes of the elementwise kernel: functions of one number are eqnn_act; then these. */
enum {
    EQNN__ADD = 100, EQNN__SUB, EQNN__MUL, EQNN__DIV, EQNN__AXPBY, /* the last: p0 a + p1 b */
    EQNN__SCALE,                                                   /* p0 a + p1             */
    EQNN__ATAN2, EQNN__LESS, EQNN__EQUAL,
    EQNN__WHERE, EQNN__FMA                                         /* a != 0 ? b : c; a b + c */
};
enum { EQNN__SUM, EQNN__MAX };
enum { EQNN__UNIFORM, EQNN__NORMAL, EQNN__MASK /* 1/(1-p) with probability 1-p, else 0 */ };
enum { EQNN__SGD, EQNN__ADAM, EQNN__EMA };

/* What a training step's kernel needs. w, g, s1, s2: weights, gradient, first and second moment. */
typedef struct eqnn__update {
    int kind, nesterov;
    double rate, beta1, beta2, eps, decay, l2, correct1, correct2, momentum, grad_scale;
} eqnn__update;

/* A multilinear form L = sum over items e of product over slots s of v_s[row_s(e), ...], contracted
   with constant coefficients. The last slot is the output of the forward pass; row_s(e) is given by
   a map. The kernel computes, for every slot with out[s] != NULL,

       without t:  out[s] = dL/dv_s                      (v[s] itself is not read)
       with t:     out[s] = sum over a != s with t[a] of d2L/(dv_s dv_a) t[a]

   Outputs are overwritten. A slot may be absent altogether (cols 0). */
enum { EQNN__COUPLE, EQNN__MIX, EQNN__POLY, EQNN__COPY };
enum { EQNN__EACH, EQNN__SOURCE, EQNN__TARGET, EQNN__ONE, EQNN__PAIR };
#define EQNN__SLOTS 8
typedef struct eqnn__form {
    int kind, slots, items;
    const void *plan;           /* eqnn__couple_plan, ...; lasts                    */
    const eqnn_graph *graph;    /* NULL: maps are EACH and ONE only                 */
    int map[EQNN__SLOTS], rows[EQNN__SLOTS], cols[EQNN__SLOTS];
    int weighted;               /* couple: leave out paths without weights          */
} eqnn__form;

/* What the plans of the four forms are made from. Offsets are columns of the slots; a block of a
   slot is (first column, stride between components, channels with unit stride).

   couple, slots x y h V g: for every path and channel u
       L += scale C[i][j][k] x[x + i xs + u] y[y + j ys] w[w + u ws] g[g + k gs + u]
   with w = h V (V present), w = h (V absent: cols[3] = 0), w = 1 (both absent, or path.w < 0). */
typedef struct eqnn__couple_path {
    int d1, d2, d3;          /* components                                             */
    int x, xs, y, ys, g, gs; /* first column and stride between components             */
    int w, ws;               /* first weight (negative: none) and stride over channels */
    int channels;
    const double *C;         /* [d1][d2][d3], copied; equal contents are shared        */
    double scale;
} eqnn__couple_path;

/* mix, slots x w g: L += scale x[x + i xs + u] w[w + u V + v] g[g + i gs + v], i < d, u < U, v < V;
   w [1, weights] shared by all rows or a row of weights each (map EACH). */
typedef struct eqnn__mix_block { int d, U, V, x, xs, w, g, gs; double scale; } eqnn__mix_block;

/* poly, any slots: L += c product over s of v_s[col[s]] */
typedef struct eqnn__poly_record { double c; int col[EQNN__SLOTS]; } eqnn__poly_record;

typedef struct eqnn__kernels {
    /* pointwise: out [rows,cols] contiguous; order: which derivative of a function of one number */
    void (*map)(eqnn__device *d, int op, int order, size_t rows, size_t cols, eqnn__in a,
                eqnn__in b, eqnn__in c, double p0, double p1, eqnn_real *out);
    /* numbers first..first+n-1 of the stream that key and tick name */
    void (*random)(eqnn__device *d, int kind, uint64_t key, uint64_t tick, size_t n, double p,
                   eqnn_real *out);
    void (*check)(eqnn__device *d, size_t n, const eqnn_real *x);
    /* folds: over rows -> [1,cols], over columns -> [rows,1], over CSR segments of rows (order
       NULL: the rows first[s]..first[s+1]-1 themselves) -> [n,cols]; SUM or MAX; an empty MAX is 0
       */
    void (*fold_rows)(eqnn__device *d, int op, size_t rows, size_t cols, const eqnn_real *x,
                      eqnn_real *out);
    void (*fold_cols)(eqnn__device *d, int op, size_t rows, size_t cols, const eqnn_real *x,
                      eqnn_real *out);
    void (*fold_segments)(eqnn__device *d, int op, size_t n, const int *first, const int *order,
                          size_t cols, const eqnn_real *x, eqnn_real *out);
    void (*total)(eqnn__device *d, int squares, size_t n, const eqnn_real *x, double *out);
    /* softmax over the rows of each segment, column by column; first NULL: over columns of n rows
       */
    void (*softmax)(eqnn__device *d, size_t n, const int *first, const int *order, size_t cols,
                    const eqnn_real *x, eqnn_real *out);
    void (*take_rows)(eqnn__device *d, size_t n, size_t cols, const int *index, const eqnn_real *x,
                      eqnn_real *out);
    void (*copy2d)(eqnn__device *d, size_t rows, size_t cols, const eqnn_real *src, size_t lds,
                   eqnn_real *dst, size_t ldd, int add);
    void (*transpose)(eqnn__device *d, size_t rows, size_t cols, const eqnn_real *x,
                      eqnn_real *out);
    /* out[r, c] = x[r, map[c]], and its adjoint by CSR: out[r, c] = sum over k of x[r, list[k]] */
    void (*take_cols)(eqnn__device *d, size_t rows, size_t n, const int *map, const eqnn_real *x,
                      size_t ldx, eqnn_real *out);
    void (*add_cols)(eqnn__device *d, size_t rows, size_t n, const int *first, const int *list,
                     const eqnn_real *x, size_t ldx, eqnn_real *out);
    /* C_b = alpha op(A_b) op(B_b) + beta C_b for b = 0..batch-1, row-major, ld in elements; sa,
       sb, sc are the strides between batches, 0 allowed (sc 0: the products are summed in order).
       beta 0: C is not read. */
    void (*gemm)(eqnn__device *d, int ta, int tb, size_t m, size_t n, size_t k, double alpha,
                 const eqnn_real *A, size_t lda, size_t sa, const eqnn_real *B, size_t ldb,
                 size_t sb, double beta, eqnn_real *C, size_t ldc, size_t sc, size_t batch);
    void (*form)(eqnn__device *d, const eqnn__form *f, const eqnn_real *const v[],
                 const eqnn_real *const t[], eqnn_real *const out[]);
    /* component-normalised solid harmonics of degrees 0..lmax, rows [n][(lmax+1)^2]; jacobian NULL
       or [n][(lmax+1)^2][3] */
    void (*solid)(eqnn__device *d, int lmax, size_t n, const eqnn_real *xyz, eqnn_real *Y,
                  eqnn_real *jacobian);
    /* dxyz = sum over components of g dY/dxyz, made anew from xyz; 1 <= lmax <= EQNN__SOLID_LMAX */
    void (*solid_vjp)(eqnn__device *d, int lmax, size_t n, const eqnn_real *xyz, const eqnn_real *g,
                      eqnn_real *dxyz);
    void (*update)(eqnn__device *d, const eqnn__update *u, size_t n, eqnn_real *w, eqnn_real *g,
                   eqnn_real *s1, eqnn_real *s2);
} eqnn__kernels;

/* Plans last as long as the context; NULL and an error when memory runs out. copy, slots a b g:
   g[r, c] = a[r, c] b[r, map[c]] for c < cols, b has cols_b columns. */
static const void *eqnn__couple_plan(eqnn_ctx *c, const eqnn__couple_path *paths, int n);
static const void *eqnn__mix_plan(eqnn_ctx *c, const eqnn__mix_block *blocks, int n);
static const void *eqnn__poly_plan(eqnn_ctx *c, int slots, const eqnn__poly_record *records, int n);
static const void *eqnn__copy_plan(eqnn_ctx *c, const int *map, int cols, int cols_b);

/* What all instruction sets share: names, threads, elementary functions of one double, and the
   preparation of a function of one number. */

#ifdef EQNN_CBLAS
#include <cblas.h>
#endif

/* The loops below are compiled once per instruction set; EQNN__LANES says how many floats a vector
   has. A private name gets the lanes as its suffix; a vector holds EQNN__W reals. */
#define EQNN__JOIN2(a, b) a##b
#define EQNN__JOIN(a, b) EQNN__JOIN2(a, b)
#define EQNN__K(name) EQNN__JOIN(eqnn__##name##_, EQNN__LANES)
#define EQNN__W (EQNN__LANES == 1 ? 1 : EQNN__LANES * 4 / (int)sizeof(eqnn_real))
#define EQNN__VEC EQNN__K(vec)
#define EQNN__BITS EQNN__K(bits)

#if (defined(__GNUC__) || defined(__clang__)) && !defined(__OPTIMIZE__)
#define EQNN__INLINE static inline __attribute__((unused)) /* four times sooner compiled at -O0 */
#define EQNN__NOINLINE __attribute__((noinline))
#elif defined(__GNUC__) || defined(__clang__)
#define EQNN__INLINE static inline __attribute__((always_inline, unused))
#define EQNN__NOINLINE __attribute__((noinline))
#else
#define EQNN__INLINE static inline
#define EQNN__NOINLINE
#endif
#define EQNN__PRAGMA(text) _Pragma(#text)
#if defined(__clang__) && !defined(__CUDACC__)
#define EQNN__UNROLL(n) EQNN__PRAGMA(clang loop unroll(full))
#elif defined(__GNUC__) && !defined(__CUDACC__)
#define EQNN__UNROLL(n) EQNN__PRAGMA(GCC unroll n) /* gcc -O2 unrolls only when told to */
#else
#define EQNN__UNROLL(n)
#endif
#ifdef _OPENMP
#define EQNN__OMP(...) EQNN__PRAGMA(omp __VA_ARGS__)
#else
#define EQNN__OMP(...)
#endif

/* EQNN_STRICT: no multiply-add contraction from here on: every machine gives the same bits. */
#ifdef EQNN_STRICT
#if defined(__clang__)
#pragma clang fp contract(off)
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=off")
#elif defined(_MSC_VER)
#pragma fp_contract(off)
#endif
#endif

/* Work in blocks: f(job, block, thread) for every block. Blocks are cut by the size of the problem,
   never by the number of threads, and each writes its own numbers: same bits on any number. */
typedef void (*eqnn__work)(const void *job, size_t block, int thread);

static void eqnn__parallel(const eqnn__device *d, size_t blocks, eqnn__work f, const void *job)
{
#ifdef _OPENMP
    if (d->threads > 1 && blocks > 1 && !omp_in_parallel()) {
        ptrdiff_t n = (ptrdiff_t)blocks;
        EQNN__OMP(parallel for schedule(dynamic, 1) num_threads(d->threads))
        for (ptrdiff_t b = 0; b < n; b++) f(job, (size_t)b, omp_get_thread_num());
        return;
    }
#endif
    (void)d;
    for (size_t b = 0; b < blocks; b++) f(job, b, 0);
}

/* How many blocks of about `grain` numbers: 1 when the work is too small to share. */
static size_t eqnn__blocks(size_t n, size_t grain)
{
    return n < 2 * grain ? 1 : (n + grain - 1) / grain;
}

/* ---- elementary functions of one double: libm's, or ours where all machines must agree ---- */

#define EQNN__LOG2E 1.44269504088896340736
#define EQNN__LN2 0.693147180559945309417
#define EQNN__LN2_HIGH 0.6931471803691238164901733 /* 32 bits: k times it is exact */
#define EQNN__LN2_LOW 1.908214929270587816144266e-10
#define EQNN__2_SQRT_PI 1.12837916709551257390 /* 2/sqrt(pi) */
#define EQNN__1_SQRT_2PI 0.398942280401432677940
#define EQNN__SQRT_HALF 0.707106781186547524401
#define EQNN__HALF_PI_1 1.57079632673412561416626 /* 33 bits of pi/2, 33 more, the rest */
#define EQNN__HALF_PI_2 6.07710050630396597660e-11
#define EQNN__HALF_PI_3 2.02226624879595063154e-21

#ifdef EQNN_STRICT
/* exp(x) = 2^k e^r, r = x - k ln 2, |r| <= ln(2)/2; e^r by its series. */
static double eqnn__exp(double x)
{
    if (!(x < 709.8)) return x > 0 ? HUGE_VAL : x;
    if (x < -745) return 0;
    double k = floor(x * EQNN__LOG2E + 0.5);
    double r = (x - k * EQNN__LN2_HIGH) - k * EQNN__LN2_LOW, y = 1;
    for (int j = 14; j > 0; j--) y = 1 + y * r / j;
    return ldexp(y, (int)k);
}

/* log(2^k m) = k ln 2 + 2 atanh(s), s = (m-1)/(m+1), m between sqrt(1/2) and sqrt(2). */
static double eqnn__log(double x)
{
    if (!(x > 0)) return x < 0 || x != x ? (x - x) / (x - x) : -HUGE_VAL;
    if (x > 1.7976931348623157e308) return x;
    int k;
    double m = frexp(x, &k);
    if (m < EQNN__SQRT_HALF) m *= 2, k--;
    double s = (m - 1) / (m + 1), y = 0;
    for (int j = 25; j > 1; j -= 2) y = (y + 1.0 / j) * (s * s);
    return k * EQNN__LN2_HIGH + (2 * s + (2 * s * y + k * EQNN__LN2_LOW));
}

/* sin(x + quarter pi/2). Three-part reduction; above 1e9 digits are lost, the same everywhere. */
static double eqnn__sin_quarter(double x, int quarter)
{
    double k = floor(x * (2 / EQNN__PI) + 0.5);
    if (!(fabs(k) < 1e15)) return k - k;
    double r = ((x - k * EQNN__HALF_PI_1) - k * EQNN__HALF_PI_2) - k * EQNN__HALF_PI_3;
    int q = ((int)fmod(k, 4.0) + quarter + 8) & 3;
    double y = 1;
    for (int j = 21 - (q & 1); j > 1; j -= 2) y = 1 - y * r * r / ((double)j * (j - 1));
    if (!(q & 1)) y *= r;
    return q & 2 ? -y : y;
}

static double eqnn__power(double x, double p)
{
    return eqnn__exp(p * eqnn__log(x));
}
#else
static double eqnn__exp(double x)
{
    return exp(x);
}

static double eqnn__log(double x)
{
    return log(x);
}

static double eqnn__sin_quarter(double x, int quarter)
{
    double y = quarter & 1 ? cos(x) : sin(x);
    return quarter & 2 ? -y : y;
}

static double eqnn__power(double x, double p)
{
    return pow(x, p);
}
#endif

/* The angle of (x, y); 0 at the origin. In strict builds by halving the angle three times, then
   its series. */
static double eqnn__atan2(double y, double x)
{
    if (x == 0 && y == 0) return 0;
#ifdef EQNN_STRICT
    double a = fabs(x), b = fabs(y), t = (b < a ? b / a : a / b), s = 0;
    for (int j = 0; j < 3; j++) t = t / (1 + sqrt(1 + t * t)); /* tan of half the angle */
    for (int j = 23; j > 0; j -= 2) s = 1.0 / j - s * t * t;
    s *= 8 * t;
    if (!(b < a)) s = EQNN__PI / 2 - s;
    if (x < 0) s = EQNN__PI - s;
    return y < 0 ? -s : s;
#else
    return atan2(y, x);
#endif
}

/* ---- random numbers: the i-th of a stream is a hash of (key, tick, i), in any order ---- */

/* The finaliser of splitmix64 (Steele, Lea, Flood 2014). */
static uint64_t eqnn__mix64(uint64_t z)
{
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static uint64_t eqnn__stream(uint64_t key, uint64_t tick)
{
    return eqnn__mix64(key + eqnn__mix64(tick + UINT64_C(0x632be59bd9b4e019)));
}

static uint64_t eqnn__random_bits(uint64_t stream, uint64_t i)
{
    return eqnn__mix64(stream + eqnn__mix64(i * UINT64_C(0x9e3779b97f4a7c15) + 1));
}

/* Uniform in [0,1): 53 bits. */
static double eqnn__uniform(uint64_t stream, uint64_t i)
{
    return (double)(eqnn__random_bits(stream, i) >> 11) * (1.0 / 9007199254740992.0);
}

/* N(0,1), Box and Muller (1958): numbers 2j, 2j+1 are a radius sqrt(-2 log u) times sin, cos. */
static double eqnn__normal(uint64_t stream, uint64_t i)
{
    double u = 1 - eqnn__uniform(stream, i & ~(uint64_t)1), v = eqnn__uniform(stream, i | 1);
    return sqrt(-2 * eqnn__log(u)) * eqnn__sin_quarter(2 * EQNN__PI * v, (int)(i & 1));
}

/* ---- functions of one number, any derivative ----

   A derivative of any order of every function in eqnn_act is one of a few forms ("kinds") with
   constants that depend on function and order only. They are prepared once per call: */
enum {
    EQNN__F_POLY,   /* x^e (a0 + a1 x + a2 x^2) + c where x < high, else 0; e may be negative */
    EQNN__F_PIECES, /* a0 x + a1 above 0, b0 x + b1 below, c at 0 (relu, abs, step, leaky)    */
    EQNN__F_EXP,    /* exp(x)                                                                 */
    EQNN__F_ELU,    /* a0 x + a1 above 0, else c exp(x), or c (exp(x) - 1) for order 0        */
    EQNN__F_LOG,
    EQNN__F_SINE,     /* c sin(w (x - x0) + quarter pi/2) + offset in low <= x < high            */
    EQNN__F_SINC,
    EQNN__F_TANH,
    EQNN__F_SIGMOID,
    EQNN__F_LOGISTIC, /* c w A(h) with h = tanh(z/2), w = (1 - h^2)/4, z = scale x */
    EQNN__F_SILU,     /* x s                                                       */
    EQNN__F_SILU_1,   /* s + x w                                                   */
    EQNN__F_SILU_N,   /* w (x A(h) + B(h))                                         */
    EQNN__F_SOFTPLUS, /* log(1 + exp(x)) + offset                                  */
    EQNN__F_ERF,
    EQNN__F_GELU,     /* x Phi(x), Phi the normal distribution                                  */
    EQNN__F_GELU_1,   /* Phi + x phi                                                            */
    EQNN__F_GAUSS,    /* c exp(-w x^2) A(x)                                                     */
    EQNN__F_SUS,      /* exp(-u) A(u), u = 1/x, for x > 0                                       */
    EQNN__F_ROOT,     /* c x^e sqrt(x) for x > 0                                                */
    EQNN__F_SCALAR    /* one number at a time, in double: eqnn__fn_scalar                       */
};

#define EQNN__ORDERS 24 /* the highest derivative; eqnn_map refuses more */
#define EQNN__COEFFICIENTS (2 * EQNN__ORDERS + 2)
typedef struct eqnn__fn {
    int kind, op, order, e, quarter, degree; /* degree of A and B */
    double p, c, w, x0, offset, low, high;
    eqnn_real a[EQNN__COEFFICIENTS], b[EQNN__COEFFICIENTS];
} eqnn__fn;

/* p(p-1)...(p-n+1) */
static double eqnn__falling(double p, int n)
{
    double y = 1;
    for (int j = 0; j < n; j++) y *= p - j;
    return y;
}

static double eqnn__powi(double x, int n)
{
    double y = 1, b = n < 0 ? 1 / x : x;
    for (unsigned k = (unsigned)(n < 0 ? -n : n); k; k >>= 1, b *= b)
        if (k & 1) y *= b;
    return y;
}

/* The n-th derivative of s(x) = 1/(1+exp(-x)), n >= 1, is w Q_n(h), h = 2s-1, w = (1-h^2)/4:
   h' = (1-h^2)/2 and w' = -h w give  Q_1 = 1,  Q_{n+1} = -h Q_n + Q_n' (1-h^2)/2. */
static void eqnn__logistic_poly(int n, double *q)
{
    double t[EQNN__COEFFICIENTS];
    memset(q, 0, EQNN__COEFFICIENTS * sizeof *q);
    q[0] = 1;
    for (int m = 1; m < n; m++) {
        memcpy(t, q, sizeof t);
        memset(q, 0, sizeof t);
        for (int j = 0; j < m; j++) {
            q[j + 1] -= t[j] * (1 + 0.5 * j);
            if (j > 0) q[j - 1] += 0.5 * j * t[j];
        }
    }
}

/* The n-th derivative of exp(-w x^2) is exp(-w x^2) P_n(x): P_{n+1} = P_n' - 2 w x P_n. */
static void eqnn__gauss_poly(int n, double w, double *q)
{
    double t[EQNN__COEFFICIENTS];
    memset(q, 0, EQNN__COEFFICIENTS * sizeof *q);
    q[0] = 1;
    for (int m = 0; m < n; m++) {
        memcpy(t, q, sizeof t);
        memset(q, 0, sizeof t);
        for (int j = 0; j <= m; j++) {
            q[j + 1] -= 2 * w * t[j];
            if (j > 0) q[j - 1] += j * t[j];
        }
    }
}

/* The n-th derivative of exp(-u), u = 1/x, is exp(-u) P_n(u): P_{n+1} = u^2 (P_n - P_n'). */
static void eqnn__sus_poly(int n, double *q)
{
    double t[EQNN__COEFFICIENTS];
    memset(q, 0, EQNN__COEFFICIENTS * sizeof *q);
    q[0] = 1;
    for (int m = 0; m < n; m++) {
        memcpy(t, q, sizeof t);
        memset(q, 0, sizeof t);
        for (int j = 0; j <= 2 * m; j++) {
            q[j + 2] += t[j];
            if (j > 0) q[j + 1] -= j * t[j];
        }
    }
}

static void eqnn__fn_constants(eqnn__fn *f, int degree, const double *a, const double *b)
{
    f->degree = degree;
    for (int j = 0; j <= degree; j++) f->a[j] = (eqnn_real)a[j];
    for (int j = 0; b && j <= degree; j++) f->b[j] = (eqnn_real)b[j];
}

/* c + x^e (a0 + a1 x + a2 x^2) */
static void eqnn__fn_poly(eqnn__fn *f, int e, double a0, double a1, double a2, double c)
{
    double a[3];
    a[0] = a0;
    a[1] = a1;
    a[2] = a2;
    f->kind = EQNN__F_POLY;
    f->e = e;
    f->c = c;
    eqnn__fn_constants(f, a2 != 0 ? 2 : a1 != 0 ? 1 : 0, a, NULL);
}

static void eqnn__fn_pieces(eqnn__fn *f, double above, double above0, double below, double below0)
{
    f->kind = EQNN__F_PIECES;
    f->a[0] = (eqnn_real)above;
    f->a[1] = (eqnn_real)above0;
    f->b[0] = (eqnn_real)below;
    f->b[1] = (eqnn_real)below0;
}

static void eqnn__fn_sine(eqnn__fn *f, double c, double w, double x0, int quarter)
{
    f->kind = EQNN__F_SINE;
    f->c = c * eqnn__powi(w, f->order);
    f->w = w;
    f->x0 = x0;
    f->quarter = (quarter + f->order) & 3;
}

/* x^p: falling(p, n) x^(p-n), zero where undefined. */
static void eqnn__fn_power(eqnn__fn *f, double p)
{
    double c = eqnn__falling(p, f->order), q = p - f->order;
    if (c == 0 || q == 0) {
        eqnn__fn_poly(f, 0, c, 0, 0, 0);
    } else if (fabs(q) <= 64 && q == floor(q)) {
        eqnn__fn_poly(f, (int)q, c, 0, 0, 0);
    } else if (fabs(q) <= 64 && 2 * q == floor(2 * q)) {
        f->kind = EQNN__F_ROOT;
        f->e = (int)floor(q);
        f->c = c;
    } else {
        f->kind = EQNN__F_SCALAR;
        f->c = c;
        f->p = q;
    }
}

/* The polynomial cutoff and its derivatives: terms c_j x^(p+j-n). */
static void eqnn__fn_cutoff(eqnn__fn *f, int p)
{
    double c[3], a[3];
    int n = f->order, e = p > n ? p - n : 0;
    c[0] = -0.5 * (p + 1) * (p + 2);
    c[1] = (double)p * (p + 2);
    c[2] = -0.5 * p * (p + 1);
    for (int j = 0; j < 3; j++) a[j] = 0;
    for (int j = 0; j < 3; j++)
        if (p + j >= n) a[p + j - n - e] = c[j] * eqnn__falling(p + j, n);
    eqnn__fn_poly(f, e, a[0], a[1], a[2], n == 0);
    f->high = 1;
}

static void eqnn__fn_logistic(eqnn__fn *f, int n, double scale, double c)
{
    double q[EQNN__COEFFICIENTS];
    eqnn__logistic_poly(n, q);
    eqnn__fn_constants(f, n - 1, q, NULL);
    f->kind = EQNN__F_LOGISTIC;
    f->w = scale;
    f->c = c;
}

/* x s^(n) + n s^(n-1) */
static void eqnn__fn_silu(eqnn__fn *f)
{
    double q[EQNN__COEFFICIENTS], r[EQNN__COEFFICIENTS];
    int n = f->order;
    f->kind = n == 0 ? EQNN__F_SILU : n == 1 ? EQNN__F_SILU_1 : EQNN__F_SILU_N;
    if (n < 2) return;
    eqnn__logistic_poly(n, q);
    eqnn__logistic_poly(n - 1, r);
    for (int j = 0; j < n; j++) r[j] *= n;
    eqnn__fn_constants(f, n - 1, q, r);
}

/* erf: 2/sqrt(pi) (exp(-x^2))^(n-1). gelu = x Phi: phi (x P_(n-1) + n P_(n-2)), phi = Phi'. */
static void eqnn__fn_erf(eqnn__fn *f, int gelu)
{
    double q[EQNN__COEFFICIENTS], r[EQNN__COEFFICIENTS];
    int n = f->order;
    f->kind = gelu ? (n == 0 ? EQNN__F_GELU : EQNN__F_GELU_1) : EQNN__F_ERF;
    f->w = gelu ? 0.5 : 1;
    f->c = gelu ? EQNN__1_SQRT_2PI : EQNN__2_SQRT_PI;
    if (n < 1 + gelu) return;
    f->kind = EQNN__F_GAUSS;
    eqnn__gauss_poly(n - 1, f->w, q);
    if (gelu) {
        eqnn__gauss_poly(n - 2, 0.5, r);
        for (int j = n; j > 0; j--) q[j] = q[j - 1];
        q[0] = 0;
        for (int j = 0; j < n; j++) q[j] += n * r[j];
    }
    eqnn__fn_constants(f, n - 1 + gelu, q, NULL);
}

static void eqnn__fn_sus(eqnn__fn *f)
{
    double q[EQNN__COEFFICIENTS];
    f->kind = f->order > 8 ? EQNN__F_SCALAR : EQNN__F_SUS; /* u^(2n) overflows a float */
    if (f->order > 8) return;
    eqnn__sus_poly(f->order, q);
    eqnn__fn_constants(f, 2 * f->order, q, NULL);
}

static void eqnn__fn_elu(eqnn__fn *f, double p)
{
    f->kind = EQNN__F_ELU;
    f->a[0] = f->order == 0;
    f->a[1] = f->order == 1;
    f->c = p;
}

/* The order-th derivative of softplus is the (order-1)-th of the sigmoid. */
static void eqnn__fn_softplus(eqnn__fn *f, double offset)
{
    f->offset = offset;
    f->kind = f->order == 0 ? EQNN__F_SOFTPLUS : EQNN__F_SIGMOID;
    if (f->order > 1) eqnn__fn_logistic(f, f->order - 1, 1, 1);
}

/* A(x) = acos(x)/sqrt(1 - x^2) solves (1 - x^2) A' = x A - 1. Its coefficients b_k around 1/2
   follow:

       b_(k-1) = (3/4 (k+1) b_(k+1) - (k + 1/2) b_k) / k

   downwards, where A, whose nearest singularity is x = -1, is the solution that wins (Miller; DLMF
   3.6(iii)); upwards the one that is singular at 1 would. Terms shrink as 3^-k from 0 to 1 and
   are still small a little beyond (elsewhere A is not a number). A(1/2) = 2 pi / sqrt(27). */
static void eqnn__fn_arc(eqnn__fn *f)
{
    double b[EQNN__COEFFICIENTS + EQNN__ORDERS + 1] = {0}, high = 0, here = 1, scale;
    int n = f->order, most = EQNN__COEFFICIENTS + EQNN__ORDERS;
    for (int k = 2 * most; k > 0; k--) {
        double low = (0.75 * (k + 1) * high - (k + 0.5) * here) / k;
        high = here;
        here = low;
        if (k <= most + 1) b[k - 1] = low;
    }
    f->kind = EQNN__F_SCALAR;
    f->degree = (sizeof(eqnn_real) == 8 ? 35 : 17) + 4 * n;
    if (f->degree >= EQNN__COEFFICIENTS) f->degree = EQNN__COEFFICIENTS - 1;
    for (int k = 0; k <= f->degree; k++) {
        scale = 2 * EQNN__PI / sqrt(27.) / b[0];
        for (int j = 1; j <= n; j++) scale *= k + j;
        f->a[k] = (eqnn_real)(b[k + n] * scale);
    }
}

static void eqnn__fn_make(eqnn__fn *f, int op, int order, double p)
{
    int n = order < 0 ? 0 : order > EQNN__ORDERS ? EQNN__ORDERS : order;
    f->op = op;
    f->order = n;
    f->p = p;
    f->c = 1;
    f->offset = 0;
    f->low = -HUGE_VAL;
    f->high = HUGE_VAL;
    f->degree = 0;
    switch (op) {
    case EQNN_EXP: f->kind = EQNN__F_EXP; break;
    case EQNN_LOG:
        if (n == 0) f->kind = EQNN__F_LOG;
        else eqnn__fn_poly(f, -n, eqnn__falling(-1, n - 1), 0, 0, 0);
        break;
    case EQNN_SIN: eqnn__fn_sine(f, 1, 1, 0, 0); break;
    case EQNN_COS: eqnn__fn_sine(f, 1, 1, 0, 1); break;
    case EQNN_TANH: /* = 2 s(2x) - 1 */
        f->kind = EQNN__F_TANH;
        if (n > 0) eqnn__fn_logistic(f, n, 2, ldexp(1, n + 1));
        break;
    case EQNN_SIGMOID:
        f->kind = EQNN__F_SIGMOID;
        if (n > 0) eqnn__fn_logistic(f, n, 1, 1);
        break;
    case EQNN_SILU: eqnn__fn_silu(f); break;
    case EQNN_SOFTPLUS: eqnn__fn_softplus(f, 0); break;
    case EQNN_SSP: eqnn__fn_softplus(f, -EQNN__LN2); break;
    case EQNN_GELU: eqnn__fn_erf(f, 1); break;
    case EQNN_ERF: eqnn__fn_erf(f, 0); break;
    case EQNN_RELU: eqnn__fn_pieces(f, n == 0, n == 1, 0, 0); break;
    case EQNN_ABS: eqnn__fn_pieces(f, n == 0, n == 1, -(n == 0), -(n == 1)); break;
    case EQNN_STEP: eqnn__fn_pieces(f, 0, n == 0, 0, 0); break;
    case EQNN_LEAKY_RELU: eqnn__fn_pieces(f, n == 0, n == 1, n == 0 ? p : 0, n == 1 ? p : 0); break;
    case EQNN_ELU: eqnn__fn_elu(f, p); break;
    case EQNN_POW: eqnn__fn_power(f, p); break;
    case EQNN_SUS: eqnn__fn_sus(f); break;
    case EQNN_SINC: f->kind = n == 0 ? EQNN__F_SINC : EQNN__F_SCALAR; break;
    case EQNN_SINC_ROOT: f->kind = EQNN__F_SCALAR; break;
    case EQNN_ARC: eqnn__fn_arc(f); break;
    case EQNN_COSINE_CUTOFF: /* 1/2 - cos(2 pi (x-1))/2 between 1/2 and 1 */
        eqnn__fn_sine(f, -0.5, 2 * EQNN__PI, 1, 1);
        f->offset = n == 0 ? 0.5 : 0;
        f->low = 0.5;
        f->high = 1;
        break;
    case EQNN_POLY_CUTOFF: eqnn__fn_cutoff(f, (int)p); break;
    case EQNN_COSINE_BUMP:
        eqnn__fn_sine(f, 1, EQNN__PI / 2, 0, 1);
        f->low = -1;
        f->high = 1;
        break;
    default: eqnn__fn_poly(f, n == 0, n < 2, 0, 0, 0); break; /* identity */
    }
}

/* sinc^(n), n >= 1. From x sinc = sin:  x f^(n) + n f^(n-1) = sin(x + n pi/2). Upwards the error
   grows by n/x a step, downwards by x/n: start where that is small. */
static double eqnn__sinc(double x, int n)
{
    double z = fabs(x), f = 0;
    if (x != x) return x;
    if (z > n) {
        f = eqnn__sin_quarter(z, 0) / z;
        for (int k = 1; k <= n; k++) f = (eqnn__sin_quarter(z, k & 3) - k * f) / z;
    } else {
        double s = eqnn__sin_quarter(z, 0), c = eqnn__sin_quarter(z, 1);
        for (int k = n + 20 + (int)(2 * z); k > n; k--) {
            double d = k & 1 ? c : s;
            f = ((k & 2 ? -d : d) - z * f) / k;
        }
    }
    return x < 0 && n % 2 == 1 ? -f : f;
}

/* The n-th derivative of sin(sqrt x)/sqrt x is (-1/2)^n f_n, f_n = j_n(r)/r^n, r = sqrt x, of the
   spherical Bessel functions (DLMF 10.51, 10.53): upwards x f_(n+1) = (2n+1) f_n - f_(n-1), f_(-1)
   = cos r; where that loses digits, the series sum (-x/2)^k / (k! (2n+1)!! (2n+3)...(2n+2k+1)). */
static double eqnn__sinc_root(double x, int n)
{
    double f = 1, last, term;
    if (x > 0.5 * (n + 1) * (n + 1)) {
        double r = sqrt(x);
        last = eqnn__sin_quarter(r, 1);
        f = eqnn__sin_quarter(r, 0) / r;
        for (int k = 0; k < n; k++) {
            term = ((2 * k + 1) * f - last) / x;
            last = f;
            f = term;
        }
    } else {
        for (int k = 1; k <= n; k++) f /= 2 * k + 1;
        term = f;
        for (int k = 1; k < 2000 && fabs(term) > 1e-18 * fabs(f); k++) {
            term *= -x / (2. * k * (2 * (n + k) + 1));
            f += term;
        }
    }
    return f * eqnn__powi(-0.5, n);
}

static double eqnn__arc(const eqnn__fn *f, double x)
{
    double even = 0, odd = 0, h = x - 0.5, h2 = h * h;
    if (!(fabs(h) <= 0.75)) return x != x ? x : NAN;
    for (int k = f->degree; k > 0; k -= 2) { /* the degree is odd; two sums take half the time */
        odd = odd * h2 + (double)f->a[k];
        even = even * h2 + (double)f->a[k - 1];
    }
    return even + odd * h;
}

static double eqnn__sus(double x, int n)
{
    double q[EQNN__COEFFICIENTS], u = x > 0 ? 1 / x : 800, y = 0;
    if (u > 745) return x == x ? 0 : x;
    eqnn__sus_poly(n, q);
    for (int j = 2 * n; j >= 0; j--) y = y * u + q[j];
    return y * eqnn__exp(-u);
}

static double eqnn__fn_scalar(const eqnn__fn *f, double x)
{
    if (f->op == EQNN_SINC) return eqnn__sinc(x, f->order);
    if (f->op == EQNN_SINC_ROOT) return eqnn__sinc_root(x, f->order);
    if (f->op == EQNN_ARC) return eqnn__arc(f, x);
    if (f->op == EQNN_SUS) return eqnn__sus(x, f->order);
    if (x > 0) return f->c * eqnn__power(x, f->p);
    if (x == 0 || f->p != floor(f->p)) return x == x ? 0 : x;
    double y = f->c * eqnn__power(-x, f->p); /* a large whole exponent */
    return fmod(f->p, 2) != 0 ? -y : y;
}

/* ---- coefficients of the vector functions, in the scalar type ---- */

#ifdef EQNN_DOUBLE
typedef uint64_t eqnn__uint; /* as wide as a real */
#define EQNN__MANTISSA 52
#define EQNN__BIAS 1023
/* 1.5 2^52: adding it rounds to an integer in the low bits */
#define EQNN__SHIFTER 6755399441055744.0
#define EQNN__EXP_LOW (-708.0)           /* exp gives 0 below, infinity above */
#define EQNN__EXP_HIGH 709.8
#define EQNN__LN2_1 EQNN__LN2_HIGH
#define EQNN__LN2_2 EQNN__LN2_LOW
#define EQNN__QUARTER_1 EQNN__HALF_PI_1
#define EQNN__QUARTER_2 EQNN__HALF_PI_2
#define EQNN__QUARTER_3 EQNN__HALF_PI_3
#define EQNN__SINE_LIMIT 1e6
#define EQNN__TERMS(f, d) d
#define EQNN__TINY 2.2250738585072014e-308
#else
typedef uint32_t eqnn__uint;
#define EQNN__MANTISSA 23
#define EQNN__BIAS 127
#define EQNN__SHIFTER 12582912.0f
#define EQNN__EXP_LOW (-86.6f)
#define EQNN__EXP_HIGH 88.8f
#define EQNN__LN2_1 0.693115234375f
#define EQNN__LN2_2 3.194618494530941e-5f
#define EQNN__QUARTER_1 1.5703125f
#define EQNN__QUARTER_2 4.837512969970703125e-4f
#define EQNN__QUARTER_3 7.549789954891882e-8f
#define EQNN__SINE_LIMIT 4096.0f
#define EQNN__TERMS(f, d) f
#define EQNN__TINY 1.17549435e-38f
#endif
#define EQNN__R(x) ((eqnn_real)(x))

/* (e^r - 1 - r) / r^2 = 1/2 + r/6 + ...: 1/(k+2)! */
#define EQNN__EXP_TERMS EQNN__TERMS(6, 12)
static const eqnn_real eqnn__exp_series[12] = {
    EQNN__R(1. / 2), EQNN__R(1. / 6), EQNN__R(1. / 24), EQNN__R(1. / 120), EQNN__R(1. / 720),
    EQNN__R(1. / 5040), EQNN__R(1. / 40320), EQNN__R(1. / 362880), EQNN__R(1. / 3628800),
    EQNN__R(1. / 39916800), EQNN__R(1. / 479001600), EQNN__R(1. / 6227020800.)};
/* atanh(s)/s = 1 + s^2/3 + s^4/5 + ... */
#define EQNN__LOG_TERMS EQNN__TERMS(5, 11)
#define EQNN__LOG1P_TERMS EQNN__TERMS(8, 17)
static const eqnn_real eqnn__atanh_series[17] = {
    1, EQNN__R(1. / 3), EQNN__R(1. / 5), EQNN__R(1. / 7), EQNN__R(1. / 9), EQNN__R(1. / 11),
    EQNN__R(1. / 13), EQNN__R(1. / 15), EQNN__R(1. / 17), EQNN__R(1. / 19), EQNN__R(1. / 21),
    EQNN__R(1. / 23), EQNN__R(1. / 25), EQNN__R(1. / 27), EQNN__R(1. / 29), EQNN__R(1. / 31),
    EQNN__R(1. / 33)};
/* (sin(r)/r - 1)/r^2 and (cos(r) - 1)/r^2 in powers of r^2 */
#define EQNN__SIN_TERMS EQNN__TERMS(4, 8)
static const eqnn_real eqnn__sin_series[8] = {
    EQNN__R(-1. / 6), EQNN__R(1. / 120), EQNN__R(-1. / 5040), EQNN__R(1. / 362880),
    EQNN__R(-1. / 39916800), EQNN__R(1. / 6227020800.), EQNN__R(-1. / 1307674368000.),
    EQNN__R(1. / 355687428096000.)};
#define EQNN__COS_TERMS EQNN__TERMS(5, 9)
static const eqnn_real eqnn__cos_series[9] = {
    EQNN__R(-1. / 2), EQNN__R(1. / 24), EQNN__R(-1. / 720), EQNN__R(1. / 40320),
    EQNN__R(-1. / 3628800), EQNN__R(1. / 479001600), EQNN__R(-1. / 87178291200.),
    EQNN__R(1. / 20922789888000.), EQNN__R(-1. / 6402373705728000.)};
/* erf(x) sqrt(pi)/(2x) = sum of (-x^2)^k / (k! (2k+1)), for |x| < 1/2 */
#define EQNN__ERF_TERMS EQNN__TERMS(7, 13)
static const eqnn_real eqnn__erf_series[13] = {
    1, EQNN__R(-1. / 3), EQNN__R(1. / 10), EQNN__R(-1. / 42), EQNN__R(1. / 216),
    EQNN__R(-1. / 1320), EQNN__R(1. / 9360), EQNN__R(-1. / 75600), EQNN__R(1. / 685440),
    EQNN__R(-1. / 6894720), EQNN__R(1. / 76204800), EQNN__R(-1. / 918086400),
    EQNN__R(1. / 11975040000.)};
/* log(erfc(a) exp(a^2) / t), t = 1/(1 + a/2): Chebyshev interpolation in t between t0 and 1, in
   powers of y = (2t - 1 - t0)/(1 - t0); the error is 1e-7 (float) or 1e-15. */
#ifdef EQNN_DOUBLE
#define EQNN__ERFC_T0 (1. / 16)
#define EQNN__ERFC_TERMS 23
static const eqnn_real eqnn__erfc_fit[EQNN__ERFC_TERMS] = {
    -0.629580539022418966, 0.635627456694998742, 0.0336980473943534233, -0.0403844187360497143,
    -0.00543201783016239345, 0.0067287823664279753, 0.000495681287375352838,
    -0.00148162565569015876, 0.000125175474929106165, 0.000325458221135546339,
    -0.000101433819363072366, -0.0000559227150500737743, 0.000039975318925507929,
    2.79678165950511461e-6, -0.0000107999993336312469, 2.62335953682793586e-6,
    1.81659619046396078e-6, -1.19545436784508535e-6, -5.46257635547825854e-8,
    2.66744733114373795e-7, -5.52041319154600417e-8, -2.74052860807107315e-8,
    1.02273519011255761e-8};
#else
#define EQNN__ERFC_T0 (1.f / 12)
#define EQNN__ERFC_TERMS 10
static const eqnn_real eqnn__erfc_fit[EQNN__ERFC_TERMS] = {
    -0.6154393619f, 0.6229080274f, 0.02963208584f, -0.03816875374f, -0.004310080076f,
    0.006035058164f, 0.0003299544115f, -0.001173579438f, 2.187617068e-5f, 0.0001648754412f};
#endif

/* ---- matrix product: what all passes must agree on, because it decides the order of sums ---- */

#define EQNN__GEMM_ROWS 144      /* a task: rows, columns; and how much of k it takes at a time   */
#define EQNN__GEMM_COLS 1024
#define EQNN__GEMM_K 256
#define EQNN__GEMM_CLOSE 4096    /* numbers of B that stay in L1 as they lie                      */
#define EQNN__GEMM_PACK 96       /* columns from which rows of A are packed                       */
#define EQNN__GEMM_SPLIT 16384   /* numbers of C up to which a long sum over k is cut into parts  */
#define EQNN__GEMM_SPLIT_K 2048  /* k from which that is done                                     */
#define EQNN__GEMM_PARTS 16

static EQNN__MAYBE_UNUSED size_t eqnn__gemm_scratch(const eqnn__device *d, size_t m, size_t n,
                                                    size_t k)
{
    size_t packed = (size_t)d->threads * EQNN__GEMM_ROWS * EQNN__GEMM_K;
    if (m * n <= EQNN__GEMM_SPLIT && k >= EQNN__GEMM_SPLIT_K)
        return EQNN__GEMM_PARTS * m * n * sizeof(eqnn_real);
    return n >= EQNN__GEMM_PACK ? packed * sizeof(eqnn_real) : 0;
}

#ifdef EQNN_CBLAS
static void eqnn__blas(int ta, int tb, size_t m, size_t n, size_t k, double alpha,
                       const eqnn_real *A,
                       size_t lda, const eqnn_real *B, size_t ldb, double beta, eqnn_real *C,
                       size_t ldc)
{
#ifdef EQNN_DOUBLE
    cblas_dgemm(
#else
    cblas_sgemm(
#endif
        CblasRowMajor, ta ? CblasTrans : CblasNoTrans, tb ? CblasTrans : CblasNoTrans, (int)m,
            (int)n,
        (int)k, (eqnn_real)alpha, A, (int)lda, B, (int)ldb, (eqnn_real)beta, C, (int)ldc);
}
#endif

/* ---- forms: plans, work and order; common to all instruction sets ---- */

/* Items (edges, rows) are worked on in tiles. A tile has at most EQNN__TILE items that share at
   most EQNN__TILE_ROWS rows of weights, which is a multiple of the rows that a matrix product takes
   at a time (12); within it EQNN__EDGES items at a time (a divisor of EQNN__TILE) lie in the
   lanes. */
enum { EQNN__TILE = 192, EQNN__TILE_ROWS = 96, EQNN__EDGES = 32, EQNN__PANEL = 512 };
enum { EQNN__D = 7 }; /* largest d1, d3 that have a kernel of their own */
/* Work is cut into parts by the problem's size alone: then the bits do not depend on the threads.
   Fewer parts when each needs a partial sum of its own. */
enum { EQNN__PARTS = 64, EQNN__PARTIALS = 16 };

/* A path of a coupling; M[i][k] of an edge starts at entry m (diagonal: M[k][k] only); block: which
   of the different M it is. */
typedef struct eqnn__step {
    int d1, d3, diagonal, channels, x, xs, g, gs, w, ws, m, block;
} eqnn__step;

/* M = C y: entry n is the sum over records r in first[n]..first[n+1]-1 of c[r] y[column[j[r]]]. A
   panel is a run of paths whose weights lie in the columns start..start+width-1, and blocks of
   entries. */
typedef struct eqnn__panel { int path, paths, start, width, block, blocks; } eqnn__panel;
typedef struct eqnn__span { int first, count; } eqnn__span;
/* The adjoint dy = C' dM, for each different M: groups of one column of y, with the entries
   (counted from the first of this M) and coefficients at first..first+count-1 of the lists
   back_... */
typedef struct eqnn__group { int column, first, count; } eqnn__group;
typedef struct eqnn__couple_plan_t {
    int paths, entries, columns, panels, width, channels;
    const eqnn__step *path;
    const int *first, *j, *column;
    const eqnn_real *c;
    const eqnn__panel *panel;
    const eqnn__span *block, *back;      /* of a panel: entries; of each M: groups */
    const eqnn__group *group;
    const int *back_entry;
    const eqnn_real *back_c;
    int most, pieces; /* entries of the largest M; pieces of 16 channels of all paths */
} eqnn__couple_plan_t;

typedef struct eqnn__mix_plan_t {
    int blocks, covered[3]; /* columns of x w g that some block touches  */
    const eqnn__mix_block *block;
    const char *fresh;      /* [blocks][3]: the first to touch its columns */
} eqnn__mix_plan_t;

/* col[r * slots + s]: place in the list of columns of slot s that are used at all */
typedef struct eqnn__poly_plan_t {
    int slots, records, used[EQNN__SLOTS], widest;
    const int *column[EQNN__SLOTS], *col;
    const eqnn_real *c;
} eqnn__poly_plan_t;

/* A run of columns first..first+count-1 that read b at b, b + step, b + 2 step, ...; step 0 or 1 */
typedef struct eqnn__copy_run { int first, count, b, step; } eqnn__copy_run;
typedef struct eqnn__copy_plan_t { int runs; const eqnn__copy_run *run; } eqnn__copy_plan_t;

static const eqnn_real eqnn__zeros[EQNN__EDGES] = { 0 };

/* One path of a coupling, at most EQNN__EDGES items:

       dg[k] += w sum_i M[i][k] x[i]                  dx[i] += sum_k M[i][k] w g[k]
       dw += sum_k g[k] sum_i M[i][k] x[i]

   Pointers have the path's column added; row e begins xo[e] reals further (and so on). Entry n of M
   of edge e is M[n * EQNN__EDGES + e], n = i d3 + k, or n = k when M is diagonal. dg NULL, dx NULL:
   not wanted, dx neither dw wanted. With M1, the tangents of all are computed, and dw0 += sum of
   g[k] M x. */
typedef struct eqnn__path {
    int n, d1, d3, diagonal, channels;
    size_t xs, gs;
    const size_t *xo, *go, *wo, *x1o, *g1o, *w1o, *dxo, *dgo, *dwo, *dw0o;
    const eqnn_real *x, *g, *w, *M, *x1, *g1, *w1, *M1;
    eqnn_real *dx, *dg, *dw, *dw0;
} eqnn__path;

/* dM[i][k] += sum over factors and channels of w g[k] x[i], and on to dy += C dM, in 16 lanes. */
typedef struct eqnn__factor {
    int channels; /* at most 16 */
    size_t xs, gs;
    const size_t *xo, *go, *wo;
    const eqnn_real *x, *g, *w;
} eqnn__factor;
typedef struct eqnn__matrix {
    int n, d1, d3, diagonal, wide, factors, groups; /* wide of the factors have 16 channels */
    const eqnn__factor *factor;
    size_t columns;
    eqnn_real *lane, *dy;    /* [entries][16]; [n][columns][16] */
    const eqnn__group *group;
    const int *entry;        /* the lists of the plan */
    const eqnn_real *c;
} eqnn__matrix;

/* ---- the loops of an instruction set ----

   Jobs are what a kernel was asked to do; eqnn__work is one block of a job, for eqnn__parallel. */

struct eqnn__loops;

/* map: a run of numbers of an operand: contiguous, or one number repeated (then p holds a vector of
   copies). mask 0 keeps the reader at p, so the loop has no branch. */
typedef struct eqnn__run { const eqnn_real *p; size_t mask; } eqnn__run;
#define EQNN__STRIP 512 /* numbers of a tile that are read by way of a buffer */
typedef struct eqnn__map_job {
    const struct eqnn__loops *loops;
    int op;
    size_t rows, cols, chunk; /* chunk: rows (or numbers, when rows is 1) of a block */
    eqnn__in in[3];
    int operands;
    eqnn_real p0, p1, *out;
    const eqnn__fn *f;
} eqnn__map_job;

/* Folds, softmax, moving rows; what a kernel does not need is not set. */
enum {
    EQNN__MOVE_TAKE, EQNN__MOVE_COPY, EQNN__MOVE_ADD, EQNN__MOVE_TAKE_COLS, EQNN__MOVE_ADD_COLS
};
typedef struct eqnn__rows_job {
    int op;
    size_t rows, cols, chunk, ldx, ldo; /* chunk: rows (fold_rows: columns) of a block */
    const int *first, *list;
    const eqnn_real *x;
    eqnn_real *out;
    double *partial;
} eqnn__rows_job;

/* The factors of an update, rounded once: what a loop over the weights must not compute again. */
typedef struct eqnn__factors {
    int kind, nesterov;
    eqnn_real b1, c1, b2, c2, k1, k2, eps, rate, decay, l2, momentum, grad_scale;
} eqnn__factors;

typedef struct eqnn__update_job {
    eqnn__factors f;
    size_t n;
    eqnn_real *w, *g, *s1, *s2;
} eqnn__update_job;

typedef struct eqnn__gemm_job {
    const struct eqnn__loops *loops;
    int ta, tb;
    size_t m, n, k, lda, sa, ldb, sb, ldc, sc, batch;
    eqnn_real alpha, beta;
    const eqnn_real *A, *B;
    eqnn_real *C;
    size_t rows, cols, row_blocks, col_blocks; /* of a task                                     */
    size_t parts, units;                       /* pieces of the sum; blocks of k in all batches */
    eqnn_real *partial, *packed;               /* [parts][m][n]; per thread, or NULL            */
} eqnn__gemm_job;

#define EQNN__SOLID_LMAX 16 /* of the fast path */
typedef struct eqnn__solid_job {
    int lmax;
    size_t n, block;     /* points; points of a block */
    const eqnn_real *xyz, *factors, *g;
    eqnn_real *Y, *J;
    eqnn_real table[3 * (EQNN__SOLID_LMAX + 1) * (EQNN__SOLID_LMAX + 2) / 2];
} eqnn__solid_job;

/* The three factors of the gradient of P^l_(+-m): of orders m + 1, m and m - 1 of degree l - 1. */
static void eqnn__solid_factors(int l, int m, double f[3])
{
    double q = sqrt((2.0 * l + 1) / (2.0 * l - 1));
    double up = (double)(l - m) * (l - m - 1), down = (double)(l + m) * (l + m - 1);
    f[0] = q * sqrt(m ? up / 4 : up / 2);
    f[1] = q * sqrt((double)(l - m) * (l + m));
    f[2] = m ? q * sqrt(m > 1 ? down / 4 : down / 2) : 0;
}

typedef struct eqnn__loops {
    const char *name;
    int lanes;
    size_t tile_rows; /* of a matrix product */
    eqnn__work fold_rows, fold_cols, fold_segments, total; /* eqnn__rows_job: so many rows each */
    eqnn__work softmax, softmax_rows, move;
    eqnn__work update, gemv, solid, solid_plain, solid_vjp;
    /* rows whole rows from row r on, or cols numbers of one row from column c on */
    void (*map)(const eqnn__map_job *j, size_t r, size_t c, size_t rows, size_t cols);
    int (*finite)(size_t n, const eqnn_real *x);
    void (*add)(const eqnn_real *x, eqnn_real *y, size_t n);       /* y += x                 */
    void (*gemm_plain)(const eqnn__gemm_job *g);                   /* all of a small product */
    void (*gemm_block)(const eqnn__gemm_job *g, size_t b, size_t p, size_t i, size_t m, size_t j,
                       size_t n, eqnn_real keep, eqnn_real *C, size_t ldc, eqnn_real *packed);
    void (*gemm_add_parts)(const eqnn__gemm_job *g);
    /* to[p stride + j] = from[j ld + p] for p < k and j < n, at most a vector */
    void (*turn)(size_t k, size_t n, const eqnn_real *from, size_t ld, eqnn_real *to,
                 size_t stride);
    /* couple: M = C y; dx, dg, dw through one path; the same of one channel u, items in the lanes;
       dy in 16 lanes, and their sum */
    void (*entries)(const eqnn__couple_plan_t *p, const eqnn__panel *q, int e, const eqnn_real *y,
                    eqnn_real *M);
    void (*path)(const eqnn__path *a);
    void (*few)(const eqnn__path *a, int u, eqnn_real *space, const eqnn__matrix *m,
                eqnn_real *dy);
    void (*matrix)(const eqnn__matrix *m);
    void (*fold)(const eqnn__couple_plan_t *p, int n, const eqnn_real *dy, eqnn_real *out);
    void (*poly)(const eqnn__poly_plan_t *p, int slot, const eqnn_real *const in[], eqnn_real *out);
    void (*mix)(const eqnn__form *f, const eqnn_real *const v[], eqnn_real *const d[]);
    void (*copy)(const eqnn__form *f, const eqnn_real *const v[], eqnn_real *const d[]);
} eqnn__loops;

/* ---- one pass per instruction set ----

   The header includes itself: what stands under EQNN__KERNEL_PASS further down is compiled with 4,
   8 and 16 floats a vector, each pass under its own target, and the context picks after asking the
   processor: no -march is needed. Compilers without vector types get plain loops (1 lane). Only
   loops stand there, and what needs the multiply-add that the target has or has not: what is
   compiled three times takes long.

   Contraction of a*b+c to one instruction is switched on: gcc switches it off under -std=c99, at
   40 % of the speed of a matrix product. EQNN_STRICT leaves it off. [1] -O1 with these is as fast
   as -O2 here; without expensive-optimizations gcc does not contract. */

#if (defined(__GNUC__) || defined(__clang__)) && !defined(EQNN_NO_VECTORS) && \
    !(defined(__i386__) && !defined(__SSE2__))
#define EQNN__VECTORS /* define EQNN_NO_VECTORS to do without */
#if (defined(__x86_64__) || defined(__i386__)) && !defined(__CUDACC__)
#define EQNN__X86
#endif
#endif

/* The pass that every machine runs. */
#define EQNN__KERNEL_PASS
#ifdef EQNN__VECTORS
#define EQNN__LANES 4
#else
#define EQNN__LANES 1
#endif
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC push_options
#ifndef EQNN_STRICT
#pragma GCC optimize("fp-contract=fast")
#endif
#endif
#include EQNN_FILE
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC pop_options
#endif
#undef EQNN__LANES
#undef EQNN__KERNEL_PASS

/* Wider ones; each may call those before it, for what does not fill its vectors. */
#ifdef EQNN__X86
#define EQNN__KERNEL_PASS
#define EQNN__LANES 8
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#include EQNN_FILE
#pragma clang attribute pop
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#ifndef EQNN_STRICT
#pragma GCC optimize("fp-contract=fast", "expensive-optimizations", "tree-pta", "dse", \
                     "tree-dominator-opts", "tree-copy-prop", "tree-bit-ccp", "tree-dse") /* [1] */
#endif
#include EQNN_FILE
#pragma GCC pop_options
#endif
#undef EQNN__LANES
#define EQNN__LANES 16
#ifdef __clang__
#pragma clang attribute push( \
    __attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma"))), apply_to = function)
#include EQNN_FILE
#pragma clang attribute pop
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma,prefer-vector-width=512")
#ifndef EQNN_STRICT
#pragma GCC optimize("fp-contract=fast", "expensive-optimizations", "tree-pta", "dse", \
                     "tree-dominator-opts", "tree-copy-prop", "tree-bit-ccp", "tree-dse") /* [1] */
#endif
#include EQNN_FILE
#pragma GCC pop_options
#endif
#undef EQNN__LANES
#undef EQNN__KERNEL_PASS
#endif

/* The loops with at most so many lanes that this processor can run; 0: the widest. */
static const eqnn__loops *eqnn__loops_pick(int lanes)
{
    int most = lanes > 0 ? lanes : 16;
#ifdef EQNN__X86
    __builtin_cpu_init();
    if (most >= 16 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
        return &eqnn__loops_16;
    if (most >= 8 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return &eqnn__loops_8;
#endif
    (void)most;
#ifdef EQNN__VECTORS
    return &eqnn__loops_4;
#else
    return &eqnn__loops_1;
#endif
}

#endif /* EQNN_IMPLEMENTATION, first floors */

#ifdef EQNN__KERNEL_PASS

/* What a pass leaves to the one before it: channels that do not fill its vectors, and (16 lanes)
   loops without vectors, which gain nothing from wider ones. */
#undef EQNN__NARROW
#undef EQNN__PLAIN
#undef EQNN__BRIEF
#if EQNN__LANES == 16
#define EQNN__NARROW(name) eqnn__##name##_8
#define EQNN__PLAIN(name) eqnn__##name##_8
#else
#if EQNN__LANES == 8
#define EQNN__NARROW(name) eqnn__##name##_4
#endif
#define EQNN__PLAIN(name) EQNN__K(name)
#endif

/* On x86 the pass with 4 lanes serves channels that fill no wider vector, and processors without
   AVX2: of the gradient of y, which only they need, it has but the loop for any size. */
#if defined(EQNN__X86) && EQNN__LANES == 4
#define EQNN__BRIEF 1
#else
#define EQNN__BRIEF 0
#endif

/* ---- vectors: EQNN__W reals, or one when the compiler has none ---- */

#if EQNN__LANES > 1
typedef eqnn_real EQNN__VEC
    __attribute__((vector_size(4 * EQNN__LANES), aligned(sizeof(eqnn_real)), may_alias));
typedef eqnn__uint EQNN__BITS
    __attribute__((vector_size(4 * EQNN__LANES), aligned(sizeof(eqnn_real)), may_alias));

EQNN__INLINE EQNN__VEC EQNN__K(splat)(eqnn_real x)
{
    EQNN__VEC zero = {0};
    return x - zero;
}

EQNN__INLINE EQNN__BITS EQNN__K(splat_bits)(eqnn__uint x)
{
    EQNN__BITS zero = {0};
    return x - zero;
}

EQNN__INLINE EQNN__VEC EQNN__K(load)(const eqnn_real *p)
{
    return *(const EQNN__VEC *)(const void *)p;
}

EQNN__INLINE void EQNN__K(store)(eqnn_real *p, EQNN__VEC v)
{
    *(EQNN__VEC *)(void *)p = v;
}

EQNN__INLINE EQNN__BITS EQNN__K(bits_of)(EQNN__VEC v)
{
    return (EQNN__BITS)v;
}

EQNN__INLINE EQNN__VEC EQNN__K(from_bits)(EQNN__BITS b)
{
    return (EQNN__VEC)b;
}

/* Masks: all bits of a lane set where true. */
EQNN__INLINE EQNN__BITS EQNN__K(less)(EQNN__VEC a, EQNN__VEC b)
{
    return (EQNN__BITS)(a < b);
}

EQNN__INLINE EQNN__BITS EQNN__K(equal)(EQNN__VEC a, EQNN__VEC b)
{
    return (EQNN__BITS)(a == b);
}

EQNN__INLINE EQNN__VEC EQNN__K(select)(EQNN__BITS m, EQNN__VEC a, EQNN__VEC b)
{
    return (EQNN__VEC)((m & (EQNN__BITS)a) | (~m & (EQNN__BITS)b));
}

EQNN__INLINE int EQNN__K(any)(EQNN__BITS m)
{
    eqnn__uint any = 0;
    for (int j = 0; j < EQNN__W; j++) any |= m[j];
    return any != 0;
}
#else
typedef eqnn_real EQNN__VEC;
typedef eqnn__uint EQNN__BITS;

EQNN__INLINE EQNN__VEC EQNN__K(splat)(eqnn_real x)
{
    return x;
}

EQNN__INLINE EQNN__BITS EQNN__K(splat_bits)(eqnn__uint x)
{
    return x;
}

EQNN__INLINE EQNN__VEC EQNN__K(load)(const eqnn_real *p)
{
    return *p;
}

EQNN__INLINE void EQNN__K(store)(eqnn_real *p, EQNN__VEC v)
{
    *p = v;
}

EQNN__INLINE EQNN__BITS EQNN__K(bits_of)(EQNN__VEC v)
{
    EQNN__BITS b;
    memcpy(&b, &v, sizeof b);
    return b;
}

EQNN__INLINE EQNN__VEC EQNN__K(from_bits)(EQNN__BITS b)
{
    EQNN__VEC v;
    memcpy(&v, &b, sizeof v);
    return v;
}

EQNN__INLINE EQNN__BITS EQNN__K(less)(EQNN__VEC a, EQNN__VEC b)
{
    return a < b ? ~(EQNN__BITS)0 : 0;
}

EQNN__INLINE EQNN__BITS EQNN__K(equal)(EQNN__VEC a, EQNN__VEC b)
{
    return a == b ? ~(EQNN__BITS)0 : 0;
}

EQNN__INLINE EQNN__VEC EQNN__K(select)(EQNN__BITS m, EQNN__VEC a, EQNN__VEC b)
{
    return m ? a : b;
}

EQNN__INLINE int EQNN__K(any)(EQNN__BITS m)
{
    return m != 0;
}
#endif

/* The first n < EQNN__W numbers at p, zeros after them; and back. */
EQNN__INLINE EQNN__VEC EQNN__K(load_part)(const eqnn_real *p, size_t n)
{
    eqnn_real t[EQNN__W];
    size_t j = 0;
    EQNN__K(store)(t, EQNN__K(splat)(0));
    for (; EQNN__W > 4 && j + 4 <= n; j += 4) memcpy(t + j, p + j, 4 * sizeof *t);
    for (; j < n; j++) t[j] = p[j];
    return EQNN__K(load)(t);
}

EQNN__INLINE void EQNN__K(store_part)(eqnn_real *p, EQNN__VEC v, size_t n)
{
    eqnn_real t[EQNN__W];
    size_t j = 0;
    EQNN__K(store)(t, v);
    for (; EQNN__W > 4 && j + 4 <= n; j += 4) memcpy(p + j, t + j, 4 * sizeof *t);
    for (; j < n; j++) p[j] = t[j];
}

EQNN__INLINE EQNN__VEC EQNN__K(fabs)(EQNN__VEC x)
{
    return EQNN__K(from_bits)(EQNN__K(bits_of)(x) & ~(eqnn__uint)0 >> 1);
}

/* |x| with the sign of s. */
EQNN__INLINE EQNN__VEC EQNN__K(with_sign)(EQNN__VEC x, EQNN__VEC s)
{
    eqnn__uint sign = (eqnn__uint)1 << (sizeof(eqnn_real) * 8 - 1);
    return EQNN__K(from_bits)((EQNN__K(bits_of)(x) & ~sign) | (EQNN__K(bits_of)(s) & sign));
}

/* c[0] + c[1] x + ... by Horner's rule. */
EQNN__INLINE EQNN__VEC EQNN__K(series)(const eqnn_real *c, int terms, EQNN__VEC x)
{
    EQNN__VEC y = EQNN__K(splat)(c[terms - 1]);
    EQNN__UNROLL(32)
    for (int j = terms - 2; j >= 0; j--) y = y * x + c[j];
    return y;
}

EQNN__INLINE EQNN__VEC EQNN__K(polynomial)(const eqnn_real *c, int degree, EQNN__VEC x)
{
    EQNN__VEC y = EQNN__K(splat)(c[degree]);
    for (int j = degree - 1; j >= 0; j--) y = y * x + c[j];
    return y;
}

/* ---- squares of EQNN__W by EQNN__W numbers, transposed in registers ---- */

#if EQNN__LANES > 1
/* Lists of EQNN__W lane numbers for a shuffle of two vectors; those of the second count from W. */
#define EQNN__LIST2(f, a) f(0, a), f(1, a)
#define EQNN__LIST4(f, a) EQNN__LIST2(f, a), f(2, a), f(3, a)
#define EQNN__LIST8(f, a) EQNN__LIST4(f, a), f(4, a), f(5, a), f(6, a), f(7, a)
#define EQNN__LIST16(f, a) EQNN__LIST8(f, a), f(8, a), f(9, a), f(10, a), f(11, a), f(12, a), \
        f(13, a), f(14, a), f(15, a)
#if defined(EQNN_DOUBLE)
#define EQNN__LIST(f, a) EQNN__JOIN(EQNN__JOIN(EQNN__LIST_, EQNN__LANES), _64)(f, a)
#else
#define EQNN__LIST(f, a) EQNN__JOIN(EQNN__LIST, EQNN__LANES)(f, a)
#endif
#define EQNN__LIST_16_64 EQNN__LIST8
#define EQNN__LIST_8_64 EQNN__LIST4
#define EQNN__LIST_4_64 EQNN__LIST2
#if defined(__clang__) || __GNUC__ >= 12
#define EQNN__SHUFFLE(result, a, b, f, x) result = __builtin_shufflevector(a, b, EQNN__LIST(f, x))
#else
#define EQNN__SHUFFLE(result, a, b, f, x)              \
    do {                                               \
        const EQNN__BITS lanes_ = {EQNN__LIST(f, x)};  \
        result = __builtin_shuffle(a, b, lanes_);      \
    } while (0)
#endif

/* One stage of a transposition (Eklundh 1972): in every 2h x 2h block the upper right and the lower
   left h x h blocks change places. */
#define EQNN__UPPER(j, h) ((j) & (h) ? (j) - (h) + EQNN__W : (j))
#define EQNN__LOWER(j, h) ((j) & (h) ? (j) + EQNN__W : (j) + (h))
#define EQNN__STAGE(v, h)                                         \
    EQNN__UNROLL(16)                                              \
    for (int i = 0; i < EQNN__W; i++) {                           \
        if (i & (h)) continue;                                    \
        EQNN__VEC a = v[i], b = v[i + (h)];                       \
        EQNN__SHUFFLE(v[i], a, b, EQNN__UPPER, h);                \
        EQNN__SHUFFLE(v[i + (h)], a, b, EQNN__LOWER, h);          \
    }

/* v[i][j] and v[j][i] change places. */
EQNN__INLINE void EQNN__K(turn)(EQNN__VEC *v)
{
#if EQNN__LANES * 4 >= 64 && !defined(EQNN_DOUBLE)
    EQNN__STAGE(v, 8)
#endif
#if EQNN__LANES * 4 >= 32 && !(EQNN__LANES == 8 && defined(EQNN_DOUBLE))
    EQNN__STAGE(v, 4)
#endif
#if !(EQNN__LANES == 4 && defined(EQNN_DOUBLE))
    EQNN__STAGE(v, 2)
#endif
    EQNN__STAGE(v, 1)
}
#else
EQNN__INLINE void EQNN__K(turn)(EQNN__VEC *v)
{
    (void)v;
}
#endif

/* ---- elementary functions on vectors, a few units in the last place ---- */

/* exp(x) = 2^k e^r with k = round(x / ln 2): returns e^r - 1 and half = 2^(k-1), which is finite
   for the largest x. Adding the shifter leaves k in the low bits. */
EQNN__INLINE EQNN__VEC EQNN__K(exp_parts)(EQNN__VEC x, EQNN__VEC *half)
{
    EQNN__VEC t = x * (eqnn_real)EQNN__LOG2E + EQNN__SHIFTER, k = t - EQNN__SHIFTER;
    EQNN__VEC r = (x - k * EQNN__LN2_1) - k * EQNN__LN2_2;
    *half = EQNN__K(from_bits)((EQNN__K(bits_of)(t) +
                                (eqnn__uint)(EQNN__BIAS - 1)) << EQNN__MANTISSA);
    return r + r * r * EQNN__K(series)(eqnn__exp_series, EQNN__EXP_TERMS, r);
}

EQNN__INLINE EQNN__VEC EQNN__K(exp)(EQNN__VEC x)
{
    EQNN__VEC half, q = EQNN__K(exp_parts)(x, &half), y = (half + half * q) * 2;
    y = EQNN__K(select)(EQNN__K(less)(x, EQNN__K(splat)(EQNN__EXP_LOW)), EQNN__K(splat)(0), y);
    return EQNN__K(select)(EQNN__K(less)(EQNN__K(splat)(EQNN__EXP_HIGH), x),
                           EQNN__K(splat)((eqnn_real)HUGE_VAL), y);
}

/* exp(x) for x <= 0. */
EQNN__INLINE EQNN__VEC EQNN__K(exp_down)(EQNN__VEC x)
{
    EQNN__VEC half, q = EQNN__K(exp_parts)(x, &half), y = (half + half * q) * 2;
    return EQNN__K(select)(EQNN__K(less)(x, EQNN__K(splat)(EQNN__EXP_LOW)), EQNN__K(splat)(0), y);
}

/* exp(x) - 1 for x <= 0, exact near 0. */
EQNN__INLINE EQNN__VEC EQNN__K(expm1_down)(EQNN__VEC x)
{
    EQNN__VEC half, q = EQNN__K(exp_parts)(x, &half), two = half * 2;
    EQNN__VEC y = two * q + (two - 1);
    return EQNN__K(select)(EQNN__K(less)(x, EQNN__K(splat)(EQNN__EXP_LOW)), EQNN__K(splat)(-1), y);
}

/* tanh |x| = (1 - e) / (1 + e), e = exp(-2|x|). */
EQNN__INLINE EQNN__VEC EQNN__K(tanh)(EQNN__VEC x)
{
    EQNN__VEC m = EQNN__K(expm1_down)(EQNN__K(fabs)(x) * -2);
    return EQNN__K(with_sign)(m / (m + 2), x);
}

/* The sigmoid s(x); w = s' = e/(1+e)^2 without cancellation; h = 2s - 1. */
EQNN__INLINE EQNN__VEC EQNN__K(logistic)(EQNN__VEC x, EQNN__VEC *w, EQNN__VEC *h)
{
    EQNN__VEC z = -EQNN__K(fabs)(x), half, q = EQNN__K(exp_parts)(z, &half), two = half * 2;
    EQNN__BITS far = EQNN__K(less)(z, EQNN__K(splat)(EQNN__EXP_LOW));
    EQNN__VEC e = EQNN__K(select)(far, EQNN__K(splat)(0), two + two * q);
    EQNN__VEC m = EQNN__K(select)(far, EQNN__K(splat)(-1), two * q + (two - 1)); /* e - 1 */
    EQNN__VEC r = 1 / (e + 1), s = e * r;
    *w = s * r;
    *h = EQNN__K(with_sign)(m * r, x);
    return EQNN__K(select)(EQNN__K(less)(x, EQNN__K(splat)(0)), s, r);
}

/* log(2^k m) = k ln 2 + 2 atanh(s), s = (m-1)/(m+1), m between sqrt(1/2) and sqrt(2). */
EQNN__INLINE EQNN__VEC EQNN__K(log)(EQNN__VEC x)
{
    const eqnn_real whole = EQNN__R((uint64_t)1 << EQNN__MANTISSA); /* 2^mantissa */
    EQNN__VEC zero = EQNN__K(splat)(0), offset = EQNN__K(splat)(whole + EQNN__BIAS);
    EQNN__BITS small = EQNN__K(less)(x, EQNN__K(splat)(EQNN__TINY));
    EQNN__BITS root = EQNN__K(bits_of)(EQNN__K(splat)((eqnn_real)EQNN__SQRT_HALF));
    EQNN__VEC z = EQNN__K(select)(small, x * whole, x);
    EQNN__BITS b = EQNN__K(bits_of)(z) - root;
    EQNN__VEC m = EQNN__K(from_bits)((b & (((eqnn__uint)1 << EQNN__MANTISSA) - 1)) + root);
    EQNN__BITS e = (b + ((eqnn__uint)EQNN__BIAS << EQNN__MANTISSA)) >> EQNN__MANTISSA;
    EQNN__VEC k = EQNN__K(from_bits)(e | EQNN__K(bits_of)(EQNN__K(splat)(whole)));
    k = k - EQNN__K(select)(small, offset + EQNN__MANTISSA, offset);
    EQNN__VEC s = (m - 1) / (m + 1), s2 = s * s;
    EQNN__VEC tail = s2 * EQNN__K(series)(eqnn__atanh_series + 1, EQNN__LOG_TERMS - 1, s2);
    EQNN__VEC y = k * EQNN__LN2_1 + (s * 2 + (s * 2 * tail + k * EQNN__LN2_2));
    EQNN__VEC bad = EQNN__K(select)(EQNN__K(equal)(x, zero), EQNN__K(splat)(-(eqnn_real)HUGE_VAL),
                                    (x - x) / (x - x)); /* log 0, of negative numbers */
    y = EQNN__K(select)(EQNN__K(less)(zero, x), y, bad);
    return EQNN__K(select)(EQNN__K(equal)(x, EQNN__K(splat)((eqnn_real)HUGE_VAL)), x, y);
}

/* log(1 + e) for 0 <= e <= 1: 2 atanh(e / (2 + e)). */
EQNN__INLINE EQNN__VEC EQNN__K(log1p_unit)(EQNN__VEC e)
{
    EQNN__VEC s = e / (e + 2);
    return s * 2 * EQNN__K(series)(eqnn__atanh_series, EQNN__LOG1P_TERMS, s * s);
}

EQNN__INLINE EQNN__VEC EQNN__K(softplus)(EQNN__VEC x)
{
    EQNN__VEC zero = EQNN__K(splat)(0);
    EQNN__VEC y = EQNN__K(log1p_unit)(EQNN__K(exp_down)(-EQNN__K(fabs)(x)));
    return y + EQNN__K(select)(EQNN__K(less)(x, zero), zero, x);
}

/* sin(x + quarter pi/2) for |x| <= EQNN__SINE_LIMIT: x = k pi/2 + r in three parts (Cody and Waite
   1980); odd quarters are the cosine of r. */
EQNN__INLINE EQNN__VEC EQNN__K(sine)(EQNN__VEC x, int quarter)
{
    EQNN__VEC t = x * (eqnn_real)(2 / EQNN__PI) + EQNN__SHIFTER, k = t - EQNN__SHIFTER;
    EQNN__VEC r = ((x - k * EQNN__QUARTER_1) - k * EQNN__QUARTER_2) - k * EQNN__QUARTER_3;
    EQNN__BITS q = EQNN__K(bits_of)(t) + (eqnn__uint)quarter;
    EQNN__VEC r2 = r * r;
    EQNN__VEC s = r + r * r2 * EQNN__K(series)(eqnn__sin_series, EQNN__SIN_TERMS, r2);
    EQNN__VEC c = r2 * EQNN__K(series)(eqnn__cos_series, EQNN__COS_TERMS, r2) + 1;
    EQNN__VEC y = EQNN__K(select)(0 - (q & 1), c, s);
    return EQNN__K(from_bits)(EQNN__K(bits_of)(y) ^ ((q & 2) << (sizeof(eqnn_real) * 8 - 2)));
}

/* erfc(a) for a >= 0. */
EQNN__INLINE EQNN__VEC EQNN__K(erfc)(EQNN__VEC a)
{
    EQNN__VEC t = 1 / (a * EQNN__R(0.5) + 1), low = EQNN__K(splat)(EQNN__R(EQNN__ERFC_T0));
    t = EQNN__K(select)(EQNN__K(less)(t, low), low, t);
    EQNN__VEC y = (t * 2 - EQNN__R(1 + EQNN__ERFC_T0)) * EQNN__R(1 / (1 - EQNN__ERFC_T0));
    y = EQNN__K(series)(eqnn__erfc_fit, EQNN__ERFC_TERMS, y);
    return t * EQNN__K(exp_down)(y - a * a);
}

EQNN__INLINE EQNN__VEC EQNN__K(erf)(EQNN__VEC x)
{
    EQNN__VEC a = EQNN__K(fabs)(x), far = EQNN__K(with_sign)(1 - EQNN__K(erfc)(a), x);
    EQNN__VEC near = EQNN__K(series)(eqnn__erf_series, EQNN__ERF_TERMS, x * x) * x;
    return EQNN__K(select)(EQNN__K(less)(a, EQNN__K(splat)(EQNN__R(0.5))),
                           near * (eqnn_real)EQNN__2_SQRT_PI, far);
}

/* Phi(x) = erfc(-x/sqrt 2)/2. */
EQNN__INLINE EQNN__VEC EQNN__K(normal_cdf)(EQNN__VEC x)
{
    EQNN__VEC half = EQNN__K(erfc)(EQNN__K(fabs)(x) * (eqnn_real)EQNN__SQRT_HALF) * EQNN__R(0.5);
    return EQNN__K(select)(EQNN__K(less)(x, EQNN__K(splat)(0)), half, 1 - half);
}

/* sqrt(x) for x > 0, 0 for others. */
#if defined(EQNN__X86) && EQNN__LANES > 4 && !defined(EQNN_STRICT)
/* The processor's instruction, rounded exactly: a quarter of the time in a loop. */
EQNN__INLINE EQNN__VEC EQNN__K(sqrt)(EQNN__VEC x)
{
    EQNN__VEC y, zero = EQNN__K(splat)(0);
    __asm__(EQNN__TERMS("vsqrtps", "vsqrtpd") " {%1, %0|%0, %1}" : "=v"(y) : "v"(x));
    return EQNN__K(select)(EQNN__K(less)(x, zero) | EQNN__K(equal)(x, zero), zero, y);
}
#else
/* Newton's iteration for 1/sqrt(x) from a guess by halving the exponent, then one step for the root
   itself. */
EQNN__INLINE EQNN__VEC EQNN__K(sqrt)(EQNN__VEC x)
{
    const int digits = (EQNN__MANTISSA + 1) / 2; /* tiny numbers are scaled by 4^digits first */
    const eqnn_real up = EQNN__R((uint64_t)1 << 2 * digits);
    const eqnn_real down = 1 / EQNN__R((uint64_t)1 << digits);
    EQNN__BITS small = EQNN__K(less)(x, EQNN__K(splat)(EQNN__TINY * up));
    EQNN__VEC z = EQNN__K(select)(small, x * up, x), h = z * EQNN__R(0.5);
    eqnn__uint guess = (eqnn__uint)EQNN__TERMS(0x5f3759df, UINT64_C(0x5fe6eb50c7b537a9));
    EQNN__VEC y = EQNN__K(from_bits)(guess - (EQNN__K(bits_of)(z) >> 1));
    for (int j = 0; j < EQNN__TERMS(3, 4); j++) y = y * (EQNN__R(1.5) - h * y * y);
    h = y * EQNN__R(0.5);
    y = y * z;
    y = y + (z - y * y) * h;
    y = EQNN__K(select)(small, y * down, y);
    y = EQNN__K(select)(EQNN__K(less)(EQNN__K(splat)(0), x), y, EQNN__K(splat)(0));
    EQNN__BITS odd = EQNN__K(equal)(x, EQNN__K(splat)((eqnn_real)HUGE_VAL)) | ~EQNN__K(equal)(x, x);
    return EQNN__K(select)(odd, x, y); /* infinity and NaN stay */
}
#endif

/* x^n; 0 for 0 to a negative power. */
EQNN__INLINE EQNN__VEC EQNN__K(powi)(EQNN__VEC x, int n)
{
    EQNN__VEC y = EQNN__K(splat)(1), b = x, zero = EQNN__K(splat)(0);
    for (int k = n < 0 ? -n : n; k; k >>= 1, b = b * b)
        if (k & 1) y = y * b;
    return n < 0 ? EQNN__K(select)(EQNN__K(equal)(x, zero), zero, 1 / y) : y;
}

/* ---- map: functions of one number ---- */

EQNN__INLINE EQNN__VEC EQNN__K(pieces)(const eqnn__fn *f, EQNN__VEC x)
{
    EQNN__VEC zero = EQNN__K(splat)(0);
    EQNN__VEC below = EQNN__K(select)(EQNN__K(less)(x, zero), x * f->b[0] + f->b[1], x * 0);
    return EQNN__K(select)(EQNN__K(less)(zero, x), x * f->a[0] + f->a[1], below);
}

EQNN__INLINE EQNN__VEC EQNN__K(window)(const eqnn__fn *f, EQNN__VEC x)
{
    EQNN__VEC one = EQNN__K(splat)(f->order == 0 && f->op == EQNN_COSINE_CUTOFF ? 1 : 0);
    EQNN__VEC z = (x - (eqnn_real)f->x0) * (eqnn_real)f->w;
    EQNN__VEC y = EQNN__K(sine)(z, f->quarter) * (eqnn_real)f->c + (eqnn_real)f->offset;
    y = EQNN__K(select)(EQNN__K(less)(x, EQNN__K(splat)((eqnn_real)f->low)), one, y);
    EQNN__BITS beyond = ~EQNN__K(less)(x, EQNN__K(splat)((eqnn_real)f->high));
    return EQNN__K(select)(beyond & EQNN__K(equal)(x, x), EQNN__K(splat)(0), y);
}

EQNN__INLINE EQNN__VEC EQNN__K(cutoff)(const eqnn__fn *f, EQNN__VEC x)
{
    EQNN__VEC y = EQNN__K(polynomial)(f->a, f->degree, x);
    if (f->e) y = y * EQNN__K(powi)(x, f->e);
    y = y + (eqnn_real)f->c;
    if (f->high > 1) return y;
    EQNN__BITS inside = EQNN__K(less)(x, EQNN__K(splat)(1)) | ~EQNN__K(equal)(x, x); /* NaN stays */
    return EQNN__K(select)(inside, y, EQNN__K(splat)(0));
}

EQNN__INLINE EQNN__VEC EQNN__K(sus)(const eqnn__fn *f, EQNN__VEC x)
{
    EQNN__VEC zero = EQNN__K(splat)(0), most = EQNN__K(splat)(-EQNN__EXP_LOW);
    EQNN__VEC u = 1 / x;
    u = EQNN__K(select)(EQNN__K(less)(u, most), u, most);
    EQNN__VEC y = EQNN__K(exp_down)(-u) * EQNN__K(polynomial)(f->a, f->degree, u);
    y = EQNN__K(select)(EQNN__K(less)(zero, x) & EQNN__K(less)(u, most), y, zero);
    return EQNN__K(select)(EQNN__K(equal)(x, x), y, x);
}

/* exp(-w x^2) A(x); beyond |x| = 40 it is 0 anyway and A might overflow. */
EQNN__INLINE EQNN__VEC EQNN__K(gauss)(const eqnn__fn *f, EQNN__VEC x)
{
    EQNN__VEC end = EQNN__K(splat)(EQNN__TERMS(14, 40));
    EQNN__VEC z =
        EQNN__K(select)(EQNN__K(less)(end, EQNN__K(fabs)(x)), EQNN__K(with_sign)(end, x), x);
    EQNN__VEC y = EQNN__K(exp_down)(z * z * -(eqnn_real)f->w) * (eqnn_real)f->c;
    return y * EQNN__K(polynomial)(f->a, f->degree, z);
}

EQNN__INLINE EQNN__VEC EQNN__K(unary)(int kind, const eqnn__fn *f, EQNN__VEC x)
{
    EQNN__VEC w, h, s, zero = EQNN__K(splat)(0);
    eqnn_real c = (eqnn_real)f->c;
    switch (kind) {
    case EQNN__F_POLY: return EQNN__K(cutoff)(f, x);
    case EQNN__F_PIECES: return EQNN__K(pieces)(f, x);
    case EQNN__F_EXP: return EQNN__K(exp)(x);
    case EQNN__F_ELU:
        s = EQNN__K(select)(EQNN__K(less)(zero, x), zero, x);
        s = (f->order ? EQNN__K(exp_down)(s) : EQNN__K(expm1_down)(s)) * c;
        return EQNN__K(select)(EQNN__K(less)(zero, x), x * f->a[0] + f->a[1], s);
    case EQNN__F_LOG: return EQNN__K(log)(x);
    case EQNN__F_SINE: return EQNN__K(window)(f, x);
    case EQNN__F_SINC:
        return EQNN__K(select)(EQNN__K(equal)(x, zero), EQNN__K(splat)(1), EQNN__K(sine)(x, 0) / x);
    case EQNN__F_TANH: return EQNN__K(tanh)(x);
    case EQNN__F_SIGMOID: return EQNN__K(logistic)(x, &w, &h);
    case EQNN__F_LOGISTIC:
        (void)EQNN__K(logistic)(x * (eqnn_real)f->w, &w, &h);
        return w * EQNN__K(polynomial)(f->a, f->degree, h) * c;
    case EQNN__F_SILU: return x * EQNN__K(logistic)(x, &w, &h);
    case EQNN__F_SILU_1:
        s = EQNN__K(logistic)(x, &w, &h);
        return s + x * w;
    case EQNN__F_SILU_N:
        (void)EQNN__K(logistic)(x, &w, &h);
        s = x * EQNN__K(polynomial)(f->a, f->degree, h) + EQNN__K(polynomial)(f->b, f->degree, h);
        return w * s;
    case EQNN__F_SOFTPLUS: return EQNN__K(softplus)(x) + (eqnn_real)f->offset;
    case EQNN__F_ERF: return EQNN__K(erf)(x);
    case EQNN__F_GELU: return x * EQNN__K(normal_cdf)(x);
    case EQNN__F_GELU_1:
        s = EQNN__K(exp_down)(x * x * EQNN__R(-0.5)) * (eqnn_real)EQNN__1_SQRT_2PI;
        return EQNN__K(normal_cdf)(x) + x * s;
    case EQNN__F_GAUSS: return EQNN__K(gauss)(f, x);
    case EQNN__F_SUS: return EQNN__K(sus)(f, x);
    default: /* EQNN__F_ROOT */
        s = EQNN__K(sqrt)(x); /* x^e may overflow where x^(e + 1/2) does not */
        if (f->e < 0) s = EQNN__K(powi)(x, f->e + 1) / s * c;
        else s = f->e ? s * EQNN__K(powi)(x, f->e) * c : s * c;
        return EQNN__K(select)(EQNN__K(less)(zero, x) | ~EQNN__K(equal)(x, x), s, zero);
    }
}

/* One loop per kind: kind is a constant at every call below, so only its case is left. n is a
   multiple of EQNN__W. */
EQNN__INLINE void EQNN__K(unary_loop)(int kind, const eqnn__fn *f, size_t n, const eqnn_real *x,
                                      eqnn_real *y)
{
    eqnn__fn g = *f; /* a copy that nothing else can change stays in registers */
    for (size_t i = 0; i < n; i += EQNN__W)
        EQNN__K(store)(y + i, EQNN__K(unary)(kind, &g, EQNN__K(load)(x + i)));
}

/* One argument that is too large for the vector sine, in double. */
static EQNN__NOINLINE eqnn_real EQNN__K(sine_far)(const eqnn__fn *f, eqnn_real x)
{
    double z = (double)x;
    return (eqnn_real)(f->kind == EQNN__F_SINC ? eqnn__sin_quarter(z, 0) / z
                                               : f->c * eqnn__sin_quarter(z, f->quarter));
}

/* Looks at the arguments first; nothing that is not in the window matters. */
static void EQNN__K(sine_loop)(const eqnn__fn *f, size_t n, const eqnn_real *x, eqnn_real *y)
{
    EQNN__BITS far = EQNN__K(splat_bits)(0);
    EQNN__VEC limit = EQNN__K(splat)(EQNN__SINE_LIMIT);
    size_t i = 0;
    for (; i < n; i += EQNN__W)
        far = far | EQNN__K(less)(limit, EQNN__K(fabs)(EQNN__K(load)(x + i)));
    if (!EQNN__K(any)(far) || f->high < HUGE_VAL) {
        if (f->kind == EQNN__F_SINC) EQNN__K(unary_loop)(EQNN__F_SINC, f, n, x, y);
        else EQNN__K(unary_loop)(EQNN__F_SINE, f, n, x, y);
    } else {
        for (i = 0; i < n; i++) y[i] = EQNN__K(sine_far)(f, x[i]);
    }
}

static void EQNN__K(unary_vectors)(const eqnn__fn *f, size_t n, const eqnn_real *x, eqnn_real *y)
{
#define EQNN__CASE(kind) \
    case kind: EQNN__K(unary_loop)(kind, f, n, x, y); break;
    switch (f->kind) {
    EQNN__CASE(EQNN__F_POLY)
    EQNN__CASE(EQNN__F_PIECES)
    EQNN__CASE(EQNN__F_EXP)
    EQNN__CASE(EQNN__F_ELU)
    EQNN__CASE(EQNN__F_LOG)
    EQNN__CASE(EQNN__F_TANH)
    EQNN__CASE(EQNN__F_SIGMOID)
    EQNN__CASE(EQNN__F_LOGISTIC)
    EQNN__CASE(EQNN__F_SILU)
    EQNN__CASE(EQNN__F_SILU_1)
    EQNN__CASE(EQNN__F_SILU_N)
    EQNN__CASE(EQNN__F_SOFTPLUS)
    EQNN__CASE(EQNN__F_ERF)
    EQNN__CASE(EQNN__F_GELU)
    EQNN__CASE(EQNN__F_GELU_1)
    EQNN__CASE(EQNN__F_GAUSS)
    EQNN__CASE(EQNN__F_SUS)
    EQNN__CASE(EQNN__F_ROOT)
    case EQNN__F_SINE:
    case EQNN__F_SINC: EQNN__K(sine_loop)(f, n, x, y); break;
    default:
        for (size_t i = 0; i < n; i++) y[i] = (eqnn_real)eqnn__fn_scalar(f, (double)x[i]);
    }
#undef EQNN__CASE
}

/* y = f(x), n numbers: whole vectors, then the rest by way of one padded vector. */
static void EQNN__K(unary_run)(const eqnn__fn *f, size_t n, const eqnn_real *x, eqnn_real *y)
{
    size_t rest = n % EQNN__W, whole = n - rest;
    eqnn_real t[EQNN__W];
    if (whole) EQNN__K(unary_vectors)(f, whole, x, y);
    if (rest == 0) return;
    EQNN__K(store)(t, EQNN__K(load_part)(x + whole, rest));
    EQNN__K(unary_vectors)(f, EQNN__W, t, t);
    for (size_t j = 0; j < rest; j++) y[whole + j] = t[j];
}

/* ---- map: functions of two and three numbers ---- */

EQNN__INLINE EQNN__VEC EQNN__K(nary)(int op, EQNN__VEC a, EQNN__VEC b, EQNN__VEC c, eqnn_real p0,
                                     eqnn_real p1)
{
    EQNN__VEC zero = EQNN__K(splat)(0), one = EQNN__K(splat)(1);
    switch (op) {
    case EQNN__ADD: return a + b;
    case EQNN__SUB: return a - b;
    case EQNN__MUL: return a * b;
    case EQNN__DIV: return a / b;
    case EQNN__AXPBY: return a * p0 + b * p1;
    case EQNN__SCALE: return a * p0 + p1;
    case EQNN__LESS: return EQNN__K(select)(EQNN__K(less)(a, b), one, zero);
    case EQNN__EQUAL: return EQNN__K(select)(EQNN__K(equal)(a, b), one, zero);
    case EQNN__WHERE: return EQNN__K(select)(EQNN__K(equal)(a, zero), c, b);
    default: return a * b + c; /* EQNN__FMA */
    }
}

/* n is a multiple of EQNN__W. */
EQNN__INLINE void EQNN__K(nary_loop)(int op, const eqnn__map_job *j, size_t n,
                                     const eqnn__run *r, eqnn_real *y)
{
    const eqnn_real *a = r[0].p, *b = r[1].p, *c = r[2].p;
    size_t ma = r[0].mask, mb = r[1].mask, mc = r[2].mask;
    eqnn_real p0 = j->p0, p1 = j->p1;
    for (size_t i = 0; i < n; i += EQNN__W)
        EQNN__K(store)(y + i,
                       EQNN__K(nary)(op, EQNN__K(load)(a + (i & ma)), EQNN__K(load)(b + (i & mb)),
                                            EQNN__K(load)(c + (i & mc)), p0, p1));
}

static void EQNN__K(nary_vectors)(int op, const eqnn__map_job *j, size_t n,
                                  const eqnn__run *r, eqnn_real *y)
{
#define EQNN__CASE(op) \
    case op: EQNN__K(nary_loop)(op, j, n, r, y); break;
    switch (op) {
    EQNN__CASE(EQNN__ADD)
    EQNN__CASE(EQNN__SUB)
    EQNN__CASE(EQNN__MUL)
    EQNN__CASE(EQNN__DIV)
    EQNN__CASE(EQNN__AXPBY)
    EQNN__CASE(EQNN__SCALE)
    EQNN__CASE(EQNN__LESS)
    EQNN__CASE(EQNN__EQUAL)
    EQNN__CASE(EQNN__WHERE)
    EQNN__CASE(EQNN__FMA)
    default: /* EQNN__ATAN2 */
        for (size_t i = 0; i < n; i++)
            y[i] = (eqnn_real)eqnn__atan2((double)r[0].p[i & r[0].mask],
                                          (double)r[1].p[i & r[1].mask]);
    }
#undef EQNN__CASE
}

static void EQNN__K(nary_run)(int op, const eqnn__map_job *j, size_t n, const eqnn__run *r,
                              eqnn_real *y)
{
    size_t rest = n % EQNN__W, whole = n - rest;
    eqnn_real t[3][EQNN__W];
    eqnn__run tail[3];
    if (whole) EQNN__K(nary_vectors)(op, j, whole, r, y);
    if (rest == 0) return;
    for (int s = 0; s < 3; s++) {
        EQNN__K(store)(t[s], EQNN__K(load_part)(r[s].p + (whole & r[s].mask), rest));
        tail[s].p = t[s];
        tail[s].mask = ~(size_t)0;
    }
    EQNN__K(nary_vectors)(op, j, EQNN__W, tail, t[0]);
    for (size_t k = 0; k < rest; k++) y[whole + k] = t[0][k];
}

/* f(a), times b where there is one. */
static void EQNN__K(map_run)(const eqnn__map_job *j, size_t n, const eqnn__run *r,
                             eqnn_real *y)
{
    eqnn__run both[3];
    eqnn_real value[EQNN__W];
    if (!j->f) {
        EQNN__K(nary_run)(j->op, j, n, r, y);
        return;
    }
    both[0].p = y;
    both[0].mask = ~(size_t)0;
    both[1] = both[2] = r[1];
    if (r[0].mask) {
        EQNN__K(unary_run)(j->f, n, r[0].p, y);
    } else {
        EQNN__K(unary_run)(j->f, 1, r[0].p, value);
        EQNN__K(store)(value, EQNN__K(splat)(value[0]));
        both[0].p = value;
        both[0].mask = 0;
    }
    if (j->operands > 1) EQNN__K(nary_run)(EQNN__MUL, j, n, both, y);
    else if (!r[0].mask) EQNN__K(nary_run)(EQNN__SCALE, j, n, both, y);
}

EQNN__INLINE void EQNN__K(read_row)(const eqnn_real *p, size_t cs, size_t cols, eqnn_real *buffer)
{
    size_t k = 0;
    if (cs < 2) {
        EQNN__VEC v = EQNN__K(splat)(*p);
        for (; k + EQNN__W <= cols; k += EQNN__W)
            EQNN__K(store)(buffer + k, cs ? EQNN__K(load)(p + k) : v);
    }
    for (; k < cols; k++) buffer[k] = p[k * cs];
}

/* Reads operand `in` at n numbers starting at (r, c), running over `rows` rows of cols (all of
   them, or part of one): directly where it is contiguous or constant, else through buffer. */
static eqnn__run EQNN__K(read)(const eqnn__in *in, size_t r, size_t c, size_t rows, size_t cols,
                               eqnn_real *buffer)
{
    eqnn__run run;
    const eqnn_real *p = in->p + r * in->rs + c * in->cs;
    run.p = buffer;
    run.mask = ~(size_t)0;
    if (in->cs == 1 && (rows == 1 || in->rs == cols)) {
        run.p = p;
    } else if (in->cs == 0 && (rows == 1 || in->rs == 0)) {
        EQNN__K(store)(buffer, EQNN__K(splat)(*p));
        run.mask = 0;
    } else {
        for (size_t i = 0; i < rows; i++, p += in->rs, buffer += cols)
            EQNN__K(read_row)(p, in->cs, cols, buffer);
    }
    return run;
}

/* One tile: `rows` whole rows from row r on, or cols numbers of one row from column c on. */
static void EQNN__K(map_tile)(const eqnn__map_job *j, size_t r, size_t c, size_t rows,
                              size_t cols)
{
    eqnn_real buffer[3][EQNN__STRIP];
    eqnn__run run[3];
    run[0] = run[1] = run[2] = EQNN__K(read)(&j->in[0], r, c, rows, cols, buffer[0]);
    for (int s = 1; s < j->operands; s++)
        run[s] = EQNN__K(read)(&j->in[s], r, c, rows, cols, buffer[s]);
    EQNN__K(map_run)(j, rows * cols, run, j->out + r * j->cols + c);
}

/* x - x is 0 for every finite number and NaN for the others. */
static int EQNN__K(finite)(size_t n, const eqnn_real *x)
{
    EQNN__VEC sum = EQNN__K(splat)(0);
    size_t i = 0;
    for (; i + EQNN__W <= n; i += EQNN__W) {
        EQNN__VEC v = EQNN__K(load)(x + i);
        sum = sum + (v - v);
    }
    EQNN__VEC v = EQNN__K(load_part)(x + i, n - i);
    sum = sum + (v - v);
    return !EQNN__K(any)(~EQNN__K(equal)(sum, sum));
}

/* ---- loops without vectors: definitions, and what is never worth one ---- */

#if EQNN__LANES < 16
/* The definition, used where the whole product is smaller than the preparations of the fast one. */
static void EQNN__K(gemm_plain)(const eqnn__gemm_job *g)
{
    for (size_t b = 0; b < g->batch; b++) {
        const eqnn_real *A = g->A + b * g->sa, *B = g->B + b * g->sb;
        eqnn_real keep = b > 0 && g->sc == 0 ? 1 : g->beta;
        size_t ai = g->ta ? 1 : g->lda, ak = g->ta ? g->lda : 1;
        size_t bj = g->tb ? g->ldb : 1, bk = g->tb ? 1 : g->ldb;
        for (size_t i = 0; i < g->m; i++)
            for (size_t j = 0; j < g->n; j++) {
                eqnn_real sum = 0, *c = g->C + b * g->sc + i * g->ldc + j;
                for (size_t p = 0; p < g->k; p++) sum += A[i * ai + p * ak] * B[j * bj + p * bk];
                *c = keep != 0 ? g->alpha * sum + keep * *c : g->alpha * sum;
            }
    }
}

/* Any sizes, channels from c on: the definition of what the functions below compute. Tangents are
   sums over the factors, one of them replaced at a time. */
static void EQNN__K(path_plain)(const eqnn__path *a, size_t c)
{
    for (int e = 0; e < a->n; e++)
        for (int n = 0; n < a->d1 * a->d3; n++) {
            int i = n / a->d3, k = n % a->d3, at = a->diagonal ? k : n;
            size_t xi = (size_t)i * a->xs, gk = (size_t)k * a->gs;
            if (a->diagonal && i != k) continue;
            eqnn_real m = a->M[at * EQNN__EDGES + e], m1 = a->M1 ? a->M1[at * EQNN__EDGES + e] : 0;
            for (size_t u = c; u < (size_t)a->channels; u++) {
                eqnn_real w = a->w[a->wo[e] + u], x = a->x[a->xo[e] + xi + u];
                eqnn_real g = a->dx ? a->g[a->go[e] + gk + u] : 0;
                if (!a->M1) {
                    if (a->dg) a->dg[a->dgo[e] + gk + u] += m * (x * w);
                    if (a->dx) a->dx[a->dxo[e] + xi + u] += m * (w * g);
                    if (a->dx) a->dw[a->dwo[e] + u] += m * x * g;
                    continue;
                }
                eqnn_real w1 = a->w1[a->w1o[e] + u], x1 = a->x1[a->x1o[e] + xi + u];
                eqnn_real g1 = a->g1[a->g1o[e] + gk + u], z = m * x, z1 = m1 * x + m * x1;
                a->dg[a->dgo[e] + gk + u] += w * z1 + w1 * z;
                a->dx[a->dxo[e] + xi + u] += m1 * w * g + m * (w1 * g + w * g1);
                a->dw[a->dwo[e] + u] += z1 * g + z * g1;
                a->dw0[a->dw0o[e] + u] += z * g;
            }
        }
}

/* Sum (of squares) in double: blocks of numbers, 16 lanes each, blocks added in order. */
static void EQNN__K(total_block)(const void *job, size_t block, int thread)
{
    const eqnn__rows_job *j = (const eqnn__rows_job *)job;
    size_t i = block * j->chunk, end = j->rows - i < j->chunk ? j->rows : i + j->chunk;
    double t[16];
    (void)thread;
    for (int k = 0; k < 16; k++) t[k] = 0;
    for (; i + 16 <= end; i += 16)
        for (int k = 0; k < 16; k++) {
            double v = (double)j->x[i + (size_t)k];
            t[k] += j->op ? v * v : v;
        }
    for (int k = 0; i < end; i++, k++) {
        double v = (double)j->x[i];
        t[k] += j->op ? v * v : v;
    }
    for (int half = 8; half > 0; half /= 2)
        for (int k = 0; k < half; k++) t[k] += t[k + half];
    j->partial[block] = t[0];
}

/* mix and copy: products of three factors, item by item.

       dx[u] += sum_v w[u,v] g[v]   dw[u,v] += x[u] g[v]   dg[v] += sum_u x[u] w[u,v]

   NULL: not wanted. */
static void EQNN__K(mix_item)(const eqnn__form *f, const eqnn_real *const v[], eqnn_real *const d[])
{
    const eqnn__mix_plan_t *p = (const eqnn__mix_plan_t *)f->plan;
    for (int b = 0; b < p->blocks; b++) {
        const eqnn__mix_block *m = p->block + b;
        const eqnn_real scale = (eqnn_real)m->scale;
        for (int i = 0; i < m->d; i++)
            for (int u = 0; u < m->U; u++) {
                size_t xi = (size_t)(m->x + i * m->xs + u), gi = (size_t)(m->g + i * m->gs);
                size_t wi = (size_t)m->w + (size_t)u * (size_t)m->V, V = (size_t)m->V;
                eqnn_real x = v[0] ? scale * v[0][xi] : 0, sum = 0;
                for (size_t c = 0; c < V && d[0]; c++) sum += v[1][wi + c] * v[2][gi + c];
                for (size_t c = 0; c < V && d[1]; c++) d[1][wi + c] += x * v[2][gi + c];
                for (size_t c = 0; c < V && d[2]; c++) d[2][gi + c] += x * v[1][wi + c];
                if (d[0]) d[0][xi] += scale * sum;
            }
    }
}

/* to[c] += a[c] b[c], or a[c] b[0] when step is 0 */
EQNN__INLINE void EQNN__K(add_products)(int n, int step, const eqnn_real *a, const eqnn_real *b,
                                        eqnn_real *to)
{
    int c = 0;
    for (; c + EQNN__W <= n; c += EQNN__W) {
        EQNN__VEC v = step ? EQNN__K(load)(b + c) : EQNN__K(splat)(b[0]);
        EQNN__K(store)(to + c, EQNN__K(load)(to + c) + EQNN__K(load)(a + c) * v);
    }
    for (; c < n; c++) to[c] += a[c] * b[c * step];
}

/* da[c] += g[c] b[map[c]]   db[map[c]] += g[c] a[c]   dg[c] += a[c] b[map[c]] */
static void EQNN__K(copy_item)(const eqnn__form *f, const eqnn_real *const v[],
                               eqnn_real *const d[])
{
    const eqnn__copy_plan_t *p = (const eqnn__copy_plan_t *)f->plan;
    for (int r = 0; r < p->runs; r++) {
        const eqnn__copy_run run = p->run[r];
        const eqnn_real *a = v[0] ? v[0] + run.first : NULL, *b = v[1] ? v[1] + run.b : NULL;
        const eqnn_real *g = v[2] ? v[2] + run.first : NULL;
        eqnn_real *da = d[0] ? d[0] + run.first : NULL, *db = d[1] ? d[1] + run.b : NULL;
        eqnn_real *dg = d[2] ? d[2] + run.first : NULL;
        if (da) EQNN__K(add_products)(run.count, run.step, g, b, da);
        if (dg) EQNN__K(add_products)(run.count, run.step, a, b, dg);
        if (db && run.step) EQNN__K(add_products)(run.count, 1, g, a, db);
        else
            for (int c = 0; c < run.count && db; c++) db[0] += g[c] * a[c];
    }
}

/* The loop a reader would write, any degree: every P^l from P^(l-1) of the same row. */
static void EQNN__K(solid_plain)(const void *work, size_t i, int thread)
{
    const eqnn__solid_job *job = (const eqnn__solid_job *)work;
    size_t cols = (size_t)(job->lmax + 1) * (size_t)(job->lmax + 1);
    const eqnn_real *r = job->xyz + 3 * i;
    eqnn_real *P = job->Y + i * cols, *G = job->J ? job->J + 3 * i * cols : NULL;
    (void)thread;
    P[0] = 1;
    for (int axis = 0; G && axis < 3; axis++) G[axis] = 0;
    for (int l = 1; l <= job->lmax; l++)
        for (int m = -l; m <= l; m++) {
            int k = m < 0 ? -m : m, s = m < 0 ? -1 : 1;
            const eqnn_real *Q = P + l * l - l;
            double f[3], g[3] = {0, 0, 0}, sum = 0;
            eqnn__solid_factors(l, k, f);
            if (k + 1 < l) g[2] -= f[0] * (double)Q[s * (k + 1)];
            if (k + 1 < l) g[0] -= s * f[0] * (double)Q[-s * (k + 1)];
            if (k < l) g[1] = f[1] * (double)Q[m];
            if (k > 1 || m == 1) g[2] += f[2] * (double)Q[s * (k - 1)];
            if (k > 1 || m == -1) g[0] -= s * f[2] * (double)Q[-s * (k - 1)];
            for (int axis = 0; axis < 3; axis++) sum += g[axis] * (double)r[axis];
            P[l * l + l + m] = (eqnn_real)(sum / l);
            for (int axis = 0; G && axis < 3; axis++)
                G[3 * (l * l + l + m) + axis] = (eqnn_real)g[axis];
        }
}
#endif

/* ---- folds. Sums run over 16 virtual lanes, then a fixed tree: same bits with any vector ---- */

#define EQNN__PER_16 (16 / EQNN__W) /* vectors that make 16 lanes */

/* Sum of 16 numbers by halves: 8+8, 4+4, 2+2, 1+1. */
EQNN__INLINE eqnn_real EQNN__K(tree)(eqnn_real *t)
{
    for (int j = 0; j < 8; j++) t[j] += t[j + 8];
    for (int j = 0; j < 4; j++) t[j] += t[j + 4];
    return (t[0] + t[2]) + (t[1] + t[3]);
}

/* Sum of n numbers: blocks of 4096 over 16 lanes, block sums in order. */
static eqnn_real EQNN__K(sum)(const eqnn_real *p, size_t n)
{
    eqnn_real t[16], sum = 0;
    for (size_t first = 0; first < n; first += 4096) {
        size_t end = n - first < 4096 ? n : first + 4096, i = first;
        EQNN__VEC a[EQNN__PER_16];
        for (int k = 0; k < EQNN__PER_16; k++) a[k] = EQNN__K(splat)(0);
        for (; i + 16 <= end; i += 16)
            for (int k = 0; k < EQNN__PER_16; k++) a[k] = a[k] + EQNN__K(load)(p + i + k * EQNN__W);
        for (int k = 0; k < EQNN__PER_16; k++) EQNN__K(store)(t + k * EQNN__W, a[k]);
        for (size_t j = 0; i + j < end; j++) t[j] += p[i + j];
        sum += EQNN__K(tree)(t);
    }
    return sum;
}

/* Sum of products of n numbers, likewise. */
static EQNN__MAYBE_UNUSED eqnn_real EQNN__K(dot)(const eqnn_real *p, const eqnn_real *q, size_t n)
{
    eqnn_real t[16], sum = 0;
    for (size_t first = 0; first < n; first += 4096) {
        size_t end = n - first < 4096 ? n : first + 4096, i = first;
        EQNN__VEC a[EQNN__PER_16];
        for (int k = 0; k < EQNN__PER_16; k++) a[k] = EQNN__K(splat)(0);
        for (; i + 16 <= end; i += 16)
            for (int k = 0; k < EQNN__PER_16; k++)
                a[k] = a[k] + EQNN__K(load)(p + i + k * EQNN__W) *
                                  EQNN__K(load)(q + i + k * EQNN__W);
        for (int k = 0; k < EQNN__PER_16; k++) EQNN__K(store)(t + k * EQNN__W, a[k]);
        for (size_t j = 0; i + j < end; j++) t[j] += p[i + j] * q[i + j];
        sum += EQNN__K(tree)(t);
    }
    return sum;
}

static eqnn_real EQNN__K(largest)(const eqnn_real *p, size_t n)
{
    eqnn_real y = n ? p[0] : 0;
    size_t i = 0;
    if (n >= EQNN__W) {
        eqnn_real t[EQNN__W];
        EQNN__VEC m = EQNN__K(load)(p);
        for (; i + EQNN__W <= n; i += EQNN__W) {
            EQNN__VEC v = EQNN__K(load)(p + i);
            m = EQNN__K(select)(EQNN__K(less)(m, v), v, m);
        }
        EQNN__K(store)(t, m);
        for (int j = 0; j < EQNN__W; j++) y = t[j] > y ? t[j] : y;
    }
    for (; i < n; i++) y = p[i] > y ? p[i] : y;
    return y;
}

static void EQNN__K(fold_cols_block)(const void *job, size_t block, int thread)
{
    const eqnn__rows_job *j = (const eqnn__rows_job *)job;
    size_t last = (block + 1) * j->chunk < j->rows ? (block + 1) * j->chunk : j->rows;
    (void)thread;
    for (size_t r = block * j->chunk; r < last; r++) {
        const eqnn_real *p = j->x + r * j->cols;
        j->out[r] = j->op == EQNN__MAX ? EQNN__K(largest)(p, j->cols) : EQNN__K(sum)(p, j->cols);
    }
}

/* Folds n rows (list NULL: consecutive ones) into out, EQNN__W or fewer columns. Sums are taken in
   blocks of 64 rows, so that their error does not grow with the number of rows. */
EQNN__INLINE EQNN__VEC EQNN__K(fold_strip)(int op, size_t n, const int *list, const eqnn_real *x,
                                           size_t ld, size_t width)
{
    EQNN__VEC all = EQNN__K(splat)(0);
    for (size_t r = 0; r < n;) {
        size_t end = n - r < 64 ? n : r + 64;
        EQNN__VEC sum = EQNN__K(splat)(0);
        for (; r < end; r++) {
            const eqnn_real *p = x + (list ? (size_t)list[r] : r) * ld;
            EQNN__VEC v = width == EQNN__W ? EQNN__K(load)(p) : EQNN__K(load_part)(p, width);
            if (op == EQNN__SUM) sum = sum + v;
            else all = r == 0 ? v : EQNN__K(select)(EQNN__K(less)(all, v), v, all);
        }
        if (op == EQNN__SUM) all = all + sum;
    }
    return all;
}

/* The same one number at a time, for narrow rows. */
static void EQNN__K(fold_narrow)(int op, size_t n, const int *list, const eqnn_real *x, size_t cols,
                                 eqnn_real *out)
{
    eqnn_real sum[EQNN__W] = {0};
    for (size_t c = 0; c < cols; c++) out[c] = 0;
    for (size_t r = 0; r < n;) {
        size_t end = n - r < 64 ? n : r + 64;
        for (size_t c = 0; c < cols; c++) sum[c] = 0;
        for (; r < end; r++) {
            const eqnn_real *p = x + (list ? (size_t)list[r] : r) * cols;
            for (size_t c = 0; c < cols; c++) {
                if (op == EQNN__SUM) sum[c] += p[c];
                else if (r == 0 || p[c] > out[c]) out[c] = p[c];
            }
        }
        if (op == EQNN__SUM)
            for (size_t c = 0; c < cols; c++) out[c] += sum[c];
    }
}

static EQNN__NOINLINE void EQNN__K(fold_one)(int op, size_t n, const int *list, const eqnn_real *x,
                                             size_t cols, size_t begin, size_t end, eqnn_real *out)
{
    for (size_t c = begin; c < end; c += EQNN__W) {
        size_t width = end - c < EQNN__W ? end - c : EQNN__W;
        EQNN__VEC v = EQNN__K(fold_strip)(op, n, list, x + c, cols, width);
        if (width == EQNN__W) EQNN__K(store)(out + c, v);
        else EQNN__K(store_part)(out + c, v, width);
    }
}

static void EQNN__K(fold_segments_block)(const void *job, size_t block, int thread)
{
    const eqnn__rows_job *j = (const eqnn__rows_job *)job;
    size_t last = (block + 1) * j->chunk < j->rows ? (block + 1) * j->chunk : j->rows,
        cols = j->cols;
    (void)thread;
    for (size_t s = block * j->chunk; s < last; s++) {
        size_t begin = (size_t)j->first[s], n = (size_t)j->first[s + 1] - begin;
        const int *list = j->list ? j->list + begin : NULL;
        const eqnn_real *x = j->list ? j->x : j->x + begin * cols;
        if (cols < EQNN__W) EQNN__K(fold_narrow)(j->op, n, list, x, cols, j->out + s * cols);
        else EQNN__K(fold_one)(j->op, n, list, x, cols, 0, cols, j->out + s * cols);
    }
}

/* A single column is one long sum. */
static void EQNN__K(fold_rows_block)(const void *job, size_t block, int thread)
{
    const eqnn__rows_job *j = (const eqnn__rows_job *)job;
    size_t begin = block * j->chunk, end = begin + j->chunk < j->cols ? begin + j->chunk : j->cols;
    (void)thread;
    if (j->cols == 1)
        j->out[0] = j->op == EQNN__MAX ? EQNN__K(largest)(j->x, j->rows)
                                       : EQNN__K(sum)(j->x, j->rows);
    else if (j->cols < EQNN__W)
        EQNN__K(fold_narrow)(j->op, j->rows, NULL, j->x, j->cols, j->out);
    else EQNN__K(fold_one)(j->op, j->rows, NULL, j->x, j->cols, begin, end, j->out);
}

/* ---- softmax: exp(x - max) / sum of the same ---- */

static void EQNN__K(softmax_rows_block)(const void *job, size_t block, int thread)
{
    const eqnn__rows_job *j = (const eqnn__rows_job *)job;
    size_t last = (block + 1) * j->chunk < j->rows ? (block + 1) * j->chunk : j->rows,
        cols = j->cols;
    eqnn__fn f;
    (void)thread;
    eqnn__fn_make(&f, EQNN_EXP, 0, 0);
    for (size_t r = block * j->chunk; r < last; r++) {
        const eqnn_real *x = j->x + r * cols;
        eqnn_real *y = j->out + r * cols, m = EQNN__K(largest)(x, cols);
        for (size_t c = 0; c < cols; c++) y[c] = x[c] - m;
        EQNN__K(unary_run)(&f, cols, y, y);
        eqnn_real scale = 1 / EQNN__K(sum)(y, cols);
        for (size_t c = 0; c < cols; c++) y[c] *= scale;
    }
}

/* At most EQNN__W columns of one segment of n rows. */
EQNN__INLINE void EQNN__K(softmax_strip)(size_t n, const int *list, size_t begin, size_t ld,
                                         size_t width, const eqnn_real *x, eqnn_real *y)
{
    EQNN__VEC most = EQNN__K(splat)(-(eqnn_real)HUGE_VAL), sum = EQNN__K(splat)(0), v;
    int part = width < EQNN__W;
    for (size_t k = 0; k < n; k++) {
        const eqnn_real *p = x + (list ? (size_t)list[k] : begin + k) * ld;
        v = part ? EQNN__K(load_part)(p, width) : EQNN__K(load)(p);
        most = EQNN__K(select)(EQNN__K(less)(most, v), v, most);
    }
    for (size_t k = 0; k < n; k++) {
        size_t at = (list ? (size_t)list[k] : begin + k) * ld;
        v = part ? EQNN__K(load_part)(x + at, width) : EQNN__K(load)(x + at);
        v = EQNN__K(exp_down)(v - most);
        sum = sum + v;
        if (part) EQNN__K(store_part)(y + at, v, width);
        else EQNN__K(store)(y + at, v);
    }
    sum = 1 / sum;
    for (size_t k = 0; k < n; k++) {
        size_t at = (list ? (size_t)list[k] : begin + k) * ld;
        v = part ? EQNN__K(load_part)(y + at, width) : EQNN__K(load)(y + at);
        if (part) EQNN__K(store_part)(y + at, v * sum, width);
        else EQNN__K(store)(y + at, v * sum);
    }
}

static void EQNN__K(softmax_block)(const void *job, size_t block, int thread)
{
    const eqnn__rows_job *j = (const eqnn__rows_job *)job;
    size_t last = (block + 1) * j->chunk < j->rows ? (block + 1) * j->chunk : j->rows,
        cols = j->cols;
    (void)thread;
    for (size_t s = block * j->chunk; s < last; s++) {
        size_t begin = (size_t)j->first[s], n = (size_t)j->first[s + 1] - begin;
        const int *list = j->list ? j->list + begin : NULL;
        for (size_t c = 0; c < cols; c += EQNN__W)
            EQNN__K(softmax_strip)(n, list, begin, cols, cols - c < EQNN__W ? cols - c : EQNN__W,
                                   j->x + c, j->out + c);
    }
}

/* ---- moving rows and columns ---- */

EQNN__INLINE void EQNN__K(copy_run)(const eqnn_real *x, eqnn_real *y, size_t n)
{
    size_t i = 0;
    for (; i + EQNN__W <= n; i += EQNN__W) EQNN__K(store)(y + i, EQNN__K(load)(x + i));
    for (; i < n; i++) y[i] = x[i];
}

static void EQNN__K(add_run)(const eqnn_real *x, eqnn_real *y, size_t n)
{
    size_t i = 0;
    for (; i + EQNN__W <= n; i += EQNN__W)
        EQNN__K(store)(y + i, EQNN__K(load)(y + i) + EQNN__K(load)(x + i));
    for (; i < n; i++) y[i] += x[i];
}

EQNN__INLINE void EQNN__K(move_row)(const eqnn__rows_job *j, size_t r)
{
    const eqnn_real *x = j->x + r * j->ldx;
    eqnn_real *y = j->out + r * j->ldo;
    if (j->op == EQNN__MOVE_TAKE) {
        EQNN__K(copy_run)(j->x + (size_t)j->list[r] * j->ldx, y, j->cols);
    } else if (j->op == EQNN__MOVE_COPY) {
        EQNN__K(copy_run)(x, y, j->cols);
    } else if (j->op == EQNN__MOVE_ADD) {
        EQNN__K(add_run)(x, y, j->cols);
    } else if (j->op == EQNN__MOVE_TAKE_COLS) {
        for (size_t c = 0; c < j->cols; c++) y[c] = x[j->list[c]];
    } else {
        for (size_t c = 0; c < j->cols; c++) {
            eqnn_real sum = 0;
            for (int k = j->first[c]; k < j->first[c + 1]; k++) sum += x[j->list[k]];
            y[c] = sum;
        }
    }
}

static void EQNN__K(move_block)(const void *job, size_t block, int thread)
{
    const eqnn__rows_job *j = (const eqnn__rows_job *)job;
    size_t last = (block + 1) * j->chunk < j->rows ? (block + 1) * j->chunk : j->rows;
    (void)thread;
    for (size_t r = block * j->chunk; r < last; r++) EQNN__K(move_row)(j, r);
}

/* ---- training step ---- */

/* Kingma and Ba 2015, arXiv:1412.6980; Loshchilov and Hutter 2019 (decay apart from the gradient):
       g = grad_scale g + l2 w      m = beta1 m + (1-beta1) g      v = beta2 v + (1-beta2) g^2
       w = w - rate (decay w + (m / correct1) / (sqrt(v) / sqrt(correct2) + eps)) */
EQNN__INLINE EQNN__VEC EQNN__K(adam)(const eqnn__factors *f, EQNN__VEC w, EQNN__VEC g,
                                     eqnn_real *s1, eqnn_real *s2)
{
    EQNN__VEC m = EQNN__K(load)(s1) * f->b1 + g * f->c1;
    EQNN__VEC v = EQNN__K(load)(s2) * f->b2 + g * g * f->c2;
    EQNN__K(store)(s1, m);
    EQNN__K(store)(s2, v);
    w = w - w * (f->rate * f->decay);
    return w - m * f->k1 / (EQNN__K(sqrt)(v) * f->k2 + f->eps);
}

/* SGD: m = momentum m + g;  w = w - rate (decay w + m), or g + momentum m for m (Nesterov). */
EQNN__INLINE EQNN__VEC EQNN__K(sgd)(const eqnn__factors *f, EQNN__VEC w, EQNN__VEC g,
                                    eqnn_real *s1)
{
    EQNN__VEC step = g;
    if (s1 && f->momentum > 0) {
        EQNN__VEC m = EQNN__K(load)(s1) * f->momentum + g;
        EQNN__K(store)(s1, m);
        step = m;
        if (f->nesterov) step = g + m * f->momentum;
    }
    return w - w * (f->rate * f->decay) - step * f->rate;
}

/* n numbers, a multiple of EQNN__W. EMA: s1 = beta1 s1 + (1-beta1) w. The factors come as a copy
   that no store can change, so that they stay in registers. */
static void EQNN__K(update_vectors)(eqnn__factors f, size_t n, eqnn_real *w, const eqnn_real *g,
                                    eqnn_real *s1, eqnn_real *s2)
{
    for (size_t i = 0; i < n; i += EQNN__W) {
        EQNN__VEC x = EQNN__K(load)(w + i), dx;
        if (f.kind == EQNN__EMA) {
            EQNN__K(store)(s1 + i, EQNN__K(load)(s1 + i) * f.b1 + x * f.c1);
            continue;
        }
        dx = EQNN__K(load)(g + i) * f.grad_scale + x * f.l2;
        if (f.kind == EQNN__ADAM) EQNN__K(store)(w + i, EQNN__K(adam)(&f, x, dx, s1 + i, s2 + i));
        else EQNN__K(store)(w + i, EQNN__K(sgd)(&f, x, dx, s1 ? s1 + i : NULL));
    }
}

static void EQNN__K(update_block)(const void *job, size_t block, int thread)
{
    const eqnn__update_job *j = (const eqnn__update_job *)job;
    size_t i = block * 8192, n = j->n - i < 8192 ? j->n - i : 8192, rest = n % EQNN__W;
    eqnn_real *p[4], t[4][EQNN__W];
    (void)thread;
    p[0] = j->w, p[1] = j->g, p[2] = j->s1, p[3] = j->s2;
    for (int s = 0; s < 4; s++)
        if (p[s]) p[s] += i;
    EQNN__K(update_vectors)(j->f, n - rest, p[0], p[1], p[2], p[3]);
    if (rest == 0) return;
    for (int s = 0; s < 4; s++) /* the last few by way of t */
        if (p[s]) EQNN__K(store)(t[s], EQNN__K(load_part)(p[s] + n - rest, rest));
    EQNN__K(update_vectors)(j->f, EQNN__W, t[0], t[1], p[2] ? t[2] : NULL, t[3]);
    for (int s = 0; s < 4; s++)
        if (p[s] && s != 1) EQNN__K(store_part)(p[s] + n - rest, EQNN__K(load)(t[s]), rest);
}

/* ---- matrix product ---- */

/* C = alpha op(A) op(B) + keep C is cut into tiles of EQNN__K(TILE_ROWS) rows by two vectors of
   columns, whose sums stay in registers while k runs (Goto and van de Geijn 2008):

       for blocks of 144 rows and 1024 columns (a task; threads take tasks)
           for blocks of 256 k
               pack the rows of A, if many columns use them        [k][tile rows]   L2
               for panels of two vectors of columns
                   pack the panel of B                             [k][columns]     L1
                   for tiles of rows: multiply

   Every number of C is a sum in order of k within blocks of 256,
       blocks in order: the same bits with
   any vectors and any number of threads. */
enum {
    EQNN__K(TILE_ROWS) = EQNN__LANES == 16 ? 12 : EQNN__LANES == 8 ? 6 : 4,
    EQNN__K(PANEL) = 2 * EQNN__W
};

/* c = v + keep c for a tile whose rows of v are two vectors long: what remains at borders and when
   sums go on. */
static EQNN__NOINLINE void EQNN__K(tile_add)(const eqnn_real *v, int rows, eqnn_real keep,
                                             eqnn_real *c, size_t ldc, size_t cols)
{
    for (int i = 0; i < rows; i++, v += 2 * EQNN__W, c += ldc)
        for (size_t j = 0; j < cols; j += EQNN__W) {
            size_t n = cols - j < EQNN__W ? cols - j : EQNN__W;
            EQNN__VEC sum = EQNN__K(load)(v + j);
            if (n < EQNN__W) {
                if (keep != 0) sum = sum + EQNN__K(load_part)(c + j, n) * keep;
                EQNN__K(store_part)(c + j, sum, n);
            } else {
                if (keep != 0) sum = sum + EQNN__K(load)(c + j) * keep;
                EQNN__K(store)(c + j, sum);
            }
        }
}

/* One tile of `rows` (12 at most) by `vectors` (2 at most), constants of the caller. Element (i, p)
   of A is a[i ai + p ak]; row p of B is at b + p ldb. Rows are addressed from every third one:
   base, base + ai, base + 2 ai is what an address can hold, twelve pointers are too many. */
EQNN__INLINE void EQNN__K(tile)(int rows, int vectors, size_t k, const eqnn_real *a, size_t ai,
                                size_t ak,
                                const eqnn_real *b, size_t ldb, eqnn_real alpha, eqnn_real keep,
                                eqnn_real *c, size_t ldc, size_t cols)
{
    EQNN__VEC sum[12][2];
    const eqnn_real *base[4];
    EQNN__UNROLL(12)
    for (int i = 0; i < rows; i++) sum[i][0] = sum[i][1] = EQNN__K(splat)(0);
    for (int i = 0; i < 4; i++) base[i] = a + (size_t)(i * 3 < rows ? i * 3 : 0) * ai;
    for (size_t p = 0; p < k; p++, b += ldb) {
        EQNN__VEC b0 = EQNN__K(load)(b), b1 = b0;
        if (vectors > 1) b1 = EQNN__K(load)(b + EQNN__W);
        EQNN__UNROLL(12)
        for (int i = 0; i < rows; i++) {
            eqnn_real x = base[i / 3][(size_t)(i % 3) * ai];
            sum[i][0] = sum[i][0] + b0 * x;
            if (vectors > 1) sum[i][1] = sum[i][1] + b1 * x;
        }
        base[0] += ak;
        if (rows > 3) base[1] += ak;
        if (rows > 6) base[2] += ak;
        if (rows > 9) base[3] += ak;
    }
    int whole = cols == (size_t)vectors * EQNN__W;
    if (whole && keep == 0) {
        EQNN__UNROLL(12)
        for (int i = 0; i < rows; i++, c += ldc) {
            EQNN__K(store)(c, sum[i][0] * alpha);
            if (vectors > 1) EQNN__K(store)(c + EQNN__W, sum[i][1] * alpha);
        }
        return;
    }
    if (whole && keep == 1 && alpha == 1) { /* no product that might be contracted */
        EQNN__UNROLL(12)
        for (int i = 0; i < rows; i++, c += ldc) {
            EQNN__K(store)(c, EQNN__K(load)(c) + sum[i][0]);
            if (vectors > 1) EQNN__K(store)(c + EQNN__W, EQNN__K(load)(c + EQNN__W) + sum[i][1]);
        }
        return;
    }
    EQNN__VEC out[12][2];
    EQNN__UNROLL(12)
    for (int i = 0; i < rows; i++) {
        out[i][0] = sum[i][0] * alpha;
        out[i][1] = sum[i][1] * alpha;
    }
    EQNN__K(tile_add)((const eqnn_real *)out, rows, keep, c, ldc, cols);
}

/* How many rows the next tile takes: a full one, or 8 (two of them before one of 4), 4 or 1 of the
   rest. */
EQNN__INLINE size_t EQNN__K(tile_rows)(size_t left)
{
    if (EQNN__LANES == 16 && left >= 8 && (left < 12 || (left >= 16 && left < 20))) return 8;
    return left >= EQNN__K(TILE_ROWS) ? EQNN__K(TILE_ROWS) : left >= 4 ? 4 : 1;
}

/* A column of tiles: m rows, one panel. across: A lies with rows side by side. */
EQNN__INLINE void EQNN__K(tiles)(int vectors, int across, int packed, size_t m, size_t k,
                                 const eqnn_real *a, size_t lda, const eqnn_real *b, size_t ldb,
                                 eqnn_real alpha, eqnn_real keep, eqnn_real *c, size_t ldc,
                                 size_t cols)
{
    for (size_t i = 0, r; i < m; i += r, c += r * ldc) {
        r = EQNN__K(tile_rows)(m - i);
        size_t ai = across ? 1 : lda, ak = across ? (packed ? r : lda) : 1;
        const eqnn_real *p = a + i * (packed ? k : ai);
        if (r == EQNN__K(TILE_ROWS))
            EQNN__K(tile)(EQNN__K(TILE_ROWS), vectors, k, p, ai, ak, b, ldb, alpha, keep, c, ldc,
                          cols);
        else if (EQNN__LANES == 16 && r == 8)
            EQNN__K(tile)(8, vectors, k, p, ai, ak, b, ldb, alpha, keep, c, ldc, cols);
        else if (r == 4) EQNN__K(tile)(4, vectors, k, p, ai, ak, b, ldb, alpha, keep, c, ldc, cols);
        else EQNN__K(tile)(1, vectors, k, p, ai, ak, b, ldb, alpha, keep, c, ldc, cols);
    }
}

static EQNN__NOINLINE void EQNN__K(panel)(int across, int packed, size_t m, size_t k,
                                          const eqnn_real *a, size_t lda, const eqnn_real *b,
                                          size_t ldb, eqnn_real alpha, eqnn_real keep,
                                          eqnn_real *c, size_t ldc, size_t cols)
{
    if (cols > EQNN__W)
        EQNN__K(tiles)(2, across, packed, m, k, a, lda, b, ldb, alpha, keep, c, ldc, cols);
    else
        EQNN__K(tiles)(1, across, packed, m, k, a, lda, b, ldb, alpha, keep, c, ldc, cols);
}

/* Packing copies whole vectors while they stay inside both arrays. That may bring along numbers
   that do not belong, in lanes whose sums nobody reads or where the next store puts others. */

/* to[p stride + j] = from[p ld + j] for p < k and j < n <= EQNN__W */
static void EQNN__K(pack_rows)(size_t k, size_t n, const eqnn_real *from, size_t ld, eqnn_real *to,
                               size_t stride)
{
    size_t p = 0, in = (k - 1) * ld + n, out = (k - 1) * stride + n;
    for (; p * ld + EQNN__W <= in && p * stride + EQNN__W <= out; p++)
        EQNN__K(store)(to + p * stride, EQNN__K(load)(from + p * ld));
    for (; p < k; p++)
        for (size_t j = 0; j < n; j++) to[p * stride + j] = from[p * ld + j];
}

/* to[p stride + j] = from[j ld + p] */
static void EQNN__K(pack_turned)(size_t k, size_t n, const eqnn_real *from, size_t ld,
                                 eqnn_real *to, size_t stride)
{
    size_t p = 0, out = (k - 1) * stride + n;
    for (; p + EQNN__W <= k && (p + EQNN__W - 1) * stride + EQNN__W <= out; p += EQNN__W) {
        EQNN__VEC v[EQNN__W];
        for (size_t j = 0; j < EQNN__W; j++)
            v[j] = EQNN__K(load)(from + (j < n ? j : 0) * ld + p);
        EQNN__K(turn)(v);
        EQNN__UNROLL(16)
        for (size_t q = 0; q < EQNN__W; q++) EQNN__K(store)(to + (p + q) * stride, v[q]);
    }
    for (; p < k; p++)
        for (size_t j = 0; j < n; j++) to[p * stride + j] = from[j * ld + p];
}

/* k rows of a panel: [k][PANEL]. */
static void EQNN__K(pack_b)(int tb, size_t k, size_t cols, const eqnn_real *B, size_t ldb,
                            eqnn_real *to)
{
    for (size_t j = 0; j < cols; j += EQNN__W) {
        size_t n = cols - j < EQNN__W ? cols - j : EQNN__W;
        if (tb) EQNN__K(pack_turned)(k, n, B + j * ldb, ldb, to + j, EQNN__K(PANEL));
        else EQNN__K(pack_rows)(k, n, B + j, ldb, to + j, EQNN__K(PANEL));
    }
}

/* m rows of A by tiles: [tile][k][rows of the tile]. */
static void EQNN__K(pack_a)(int ta, size_t m, size_t k, const eqnn_real *A, size_t lda,
                            eqnn_real *to)
{
    for (size_t i = 0, r; i < m; i += r, to += r * k) {
        r = EQNN__K(tile_rows)(m - i);
        for (size_t s = (r - 1) / EQNN__W * EQNN__W, n = r - s;; s -= EQNN__W, n = EQNN__W) {
            if (ta) EQNN__K(pack_rows)(k, n, A + i + s, lda, to + s, r);
            else EQNN__K(pack_turned)(k, n, A + (i + s) * lda, lda, to + s, r);
            if (s == 0) break;
        }
    }
}

/* Rows i.. and columns j.. of one block of k of one batch. */
static void EQNN__K(gemm_block)(const eqnn__gemm_job *g, size_t b, size_t p, size_t i, size_t m,
                                size_t j, size_t n, eqnn_real keep, eqnn_real *C, size_t ldc,
                                eqnn_real *packed)
{
#if EQNN__LANES == 16
    if (n <= EQNN__W / 2) { /* would fill half a vector: those of the 8-lane pass are this long */
        EQNN__NARROW(gemm_block)(g, b, p, i, m, j, n, keep, C, ldc, packed);
        return;
    }
#endif
    eqnn_real panel[EQNN__GEMM_K * EQNN__K(PANEL)];
    const size_t most = EQNN__GEMM_K, width = EQNN__K(PANEL);
    size_t k = g->k - p < most ? g->k - p : most, lda = g->lda;
    const eqnn_real *A = g->A + b * g->sa + (g->ta ? p * lda + i : i * lda + p);
    const eqnn_real *B = g->B + b * g->sb + (g->tb ? j * g->ldb + p : p * g->ldb + j);
    int direct = !g->tb && (m <= 2 * EQNN__K(TILE_ROWS) || k * g->ldb <= EQNN__GEMM_CLOSE);
    if (packed) {
        EQNN__K(pack_a)(g->ta, m, k, A, lda, packed);
        A = packed;
    }
    for (size_t c = 0; c < n; c += width) {
        size_t cols = n - c < width ? n - c : width, ldb = width;
        const eqnn_real *from = B + (g->tb ? c * g->ldb : c), *q = panel;
        if (direct && cols % EQNN__W == 0) q = from, ldb = g->ldb;
        else EQNN__K(pack_b)(g->tb, k, cols, from, g->ldb, panel);
        EQNN__K(panel)(g->ta || packed, packed != NULL, m, k, A, lda, q, ldb, g->alpha, keep,
                       C + i * ldc + j + c, ldc, cols);
    }
}

/* C = the parts in order + beta C. */
static void EQNN__K(gemm_add_parts)(const eqnn__gemm_job *g)
{
    for (size_t i = 0; i < g->m; i++) {
        eqnn_real *c = g->C + i * g->ldc;
        const eqnn_real *p = g->partial + i * g->n;
        for (size_t j = 0; j < g->n; j++) c[j] = g->beta != 0 ? g->beta * c[j] + p[j] : p[j];
        for (size_t s = 1; s < g->parts; s++) EQNN__K(add_run)(p + s * g->m * g->n, c, g->n);
    }
}

/* Matrix times vector: row i of M times v. */
static void EQNN__K(gemv_block)(const void *job, size_t block, int thread)
{
    const eqnn__gemm_job *g = (const eqnn__gemm_job *)job;
    size_t last = (block + 1) * g->rows < g->m ? (block + 1) * g->rows : g->m;
    (void)thread;
    for (size_t i = block * g->rows; i < last; i++) {
        eqnn_real *c = g->C + i * g->ldc,
            sum = EQNN__K(dot)(g->A + i * g->lda, g->B, g->k) * g->alpha;
        *c = g->beta != 0 ? sum + g->beta * *c : sum;
    }
}

/* ---- couple: one path, at most EQNN__EDGES items ---- */

/* The functions below are compiled for each d3: a small constant, so that sums over k stay in
   registers. They do U vectors of channels from c on. */

/* dg: items with the same target add to registers. */
EQNN__INLINE void EQNN__K(path_forward)(const eqnn__path *a, int c, int d3, int U)
{
    for (int e = 0; e < a->n;) {
        size_t to = a->dgo[e];
        eqnn_real *g = a->dg + to + c;
        EQNN__VEC sum[2 * EQNN__D];
        EQNN__UNROLL(16)
        for (int k = 0; k < d3 * U; k++)
            sum[k] = EQNN__K(load)(g + (size_t)(k / U) * a->gs + k % U * EQNN__W);
        do {
            const eqnn_real *x = a->x + a->xo[e] + c, *M = a->M + e;
            EQNN__VEC w[2], z[2]; /* z breaks the chain of dependent sums when d3 is 1 */
            EQNN__UNROLL(2)
            for (int u = 0; u < U; u++) {
                w[u] = EQNN__K(load)(a->w + a->wo[e] + c + u * EQNN__W);
                z[u] = EQNN__K(splat)(0);
            }
            for (int i = 0; i < a->d1; i++, x += a->xs, M += d3 * EQNN__EDGES)
                EQNN__UNROLL(2)
                for (int u = 0; u < U; u++) {
                    EQNN__VEC t = EQNN__K(load)(x + u * EQNN__W);
                    if (d3 == 1) {
                        z[u] += M[0] * t;
                        continue;
                    }
                    t *= w[u];
                    EQNN__UNROLL(8)
                    for (int k = 0; k < d3; k++) sum[k * U + u] += M[k * EQNN__EDGES] * t;
                }
            if (d3 == 1)
                EQNN__UNROLL(2)
                for (int u = 0; u < U; u++) sum[u] += w[u] * z[u];
        } while (++e < a->n && a->dgo[e] == to);
        EQNN__UNROLL(16)
        for (int k = 0; k < d3 * U; k++)
            EQNN__K(store)(g + (size_t)(k / U) * a->gs + k % U * EQNN__W, sum[k]);
    }
}

/* A row of M: z[k] += M[k] x and dx += sum_k M[k] q[k] */
EQNN__INLINE void EQNN__K(backward_row)(const eqnn_real *M, const eqnn_real *x, eqnn_real *dx,
                                        const EQNN__VEC *q, EQNN__VEC *z, int d3, int U)
{
    EQNN__VEC x_i[2], sum[2];
    EQNN__UNROLL(2)
    for (int u = 0; u < U; u++) {
        x_i[u] = EQNN__K(load)(x + u * EQNN__W);
        sum[u] = EQNN__K(splat)(0);
    }
    EQNN__UNROLL(16)
    for (int n = 0; n < d3 * U; n++) {
        EQNN__VEC m = EQNN__K(splat)(M[n / U * EQNN__EDGES]);
        z[n] += m * x_i[n % U];
        sum[n % U] += m * q[n];
    }
    EQNN__UNROLL(2)
    for (int u = 0; u < U; u++)
        EQNN__K(store)(dx + u * EQNN__W, EQNN__K(load)(dx + u * EQNN__W) + sum[u]);
}

/* dx and dw together */
EQNN__INLINE void EQNN__K(path_backward)(const eqnn__path *a, int c, int d3, int U)
{
    for (int e = 0; e < a->n; e++) {
        const eqnn_real *x = a->x + a->xo[e] + c, *g = a->g + a->go[e] + c, *M = a->M + e;
        const eqnn_real *w = a->w + a->wo[e] + c;
        eqnn_real *dx = a->dx + a->dxo[e] + c, *dw = a->dw + a->dwo[e] + c;
        EQNN__VEC q[2 * EQNN__D], z[2 * EQNN__D], sum[2];
        EQNN__UNROLL(16)
        for (int n = 0; n < d3 * U; n++) {
            q[n] = EQNN__K(load)(w + n % U * EQNN__W) *
                   EQNN__K(load)(g + (size_t)(n / U) * a->gs + n % U * EQNN__W);
            z[n] = EQNN__K(splat)(0);
        }
        for (int i = 0; i < a->d1; i++, x += a->xs, dx += a->xs, M += d3 * EQNN__EDGES)
            EQNN__K(backward_row)(M, x, dx, q, z, d3, U);
        EQNN__UNROLL(2)
        for (int u = 0; u < U; u++) sum[u] = EQNN__K(load)(dw + u * EQNN__W);
        EQNN__UNROLL(16)
        for (int n = 0; n < d3 * U; n++)
            sum[n % U] += z[n] * EQNN__K(load)(g + (size_t)(n / U) * a->gs + n % U * EQNN__W);
        EQNN__UNROLL(2)
        for (int u = 0; u < U; u++) EQNN__K(store)(dw + u * EQNN__W, sum[u]);
    }
}

EQNN__INLINE void EQNN__K(tangent_row)(const eqnn_real *M, const eqnn_real *M1, const eqnn_real *x,
                                       const eqnn_real *x1, eqnn_real *dx, const EQNN__VEC *q,
                                       const EQNN__VEC *q1, EQNN__VEC *z, EQNN__VEC *z1, int d3)
{
    EQNN__VEC x_i = EQNN__K(load)(x), x1_i = EQNN__K(load)(x1), sum = EQNN__K(splat)(0);
    EQNN__UNROLL(8)
    for (int k = 0; k < d3; k++) {
        eqnn_real m = M[k * EQNN__EDGES], m1 = M1[k * EQNN__EDGES];
        z[k] += m * x_i;
        z1[k] += m * x1_i;
        z1[k] += m1 * x_i;
        sum += m * q1[k];
        sum += m1 * q[k];
    }
    EQNN__K(store)(dx, EQNN__K(load)(dx) + sum);
}

/* The tangents of all four: value and direction of z = M x and q = w g go together. */
EQNN__INLINE void EQNN__K(path_tangent)(const eqnn__path *a, int c, int d3)
{
    for (int e = 0; e < a->n; e++) {
        const eqnn_real *x = a->x + a->xo[e] + c, *x1 = a->x1 + a->x1o[e] + c;
        const eqnn_real *g = a->g + a->go[e] + c, *g1 = a->g1 + a->g1o[e] + c;
        const eqnn_real *M = a->M + e, *M1 = a->M1 + e;
        eqnn_real *dx = a->dx + a->dxo[e] + c, *dg = a->dg + a->dgo[e] + c;
        eqnn_real *dw = a->dw + a->dwo[e] + c, *dw0 = a->dw0 + a->dw0o[e] + c;
        EQNN__VEC w = EQNN__K(load)(a->w + a->wo[e] + c), w1 = EQNN__K(load)(a->w1 + a->w1o[e] + c);
        EQNN__VEC q[EQNN__D], q1[EQNN__D], z[EQNN__D], z1[EQNN__D], sum, sum0;
        EQNN__UNROLL(8)
        for (int k = 0; k < d3; k++) {
            EQNN__VEC g_k = EQNN__K(load)(g + (size_t)k * a->gs);
            q[k] = w * g_k;
            q1[k] = w1 * g_k;
            q1[k] += w * EQNN__K(load)(g1 + (size_t)k * a->gs);
            z[k] = z1[k] = EQNN__K(splat)(0);
        }
        for (int i = 0; i < a->d1; i++, x += a->xs, x1 += a->xs, dx += a->xs) {
            EQNN__K(tangent_row)(M, M1, x, x1, dx, q, q1, z, z1, d3);
            M += d3 * EQNN__EDGES, M1 += d3 * EQNN__EDGES;
        }
        sum = EQNN__K(load)(dw), sum0 = EQNN__K(load)(dw0);
        EQNN__UNROLL(8)
        for (int k = 0; k < d3; k++) {
            EQNN__VEC g_k = EQNN__K(load)(g + (size_t)k * a->gs), t;
            sum += z1[k] * g_k;
            sum += z[k] * EQNN__K(load)(g1 + (size_t)k * a->gs);
            sum0 += z[k] * g_k;
            t = EQNN__K(load)(dg + (size_t)k * a->gs) + w * z1[k];
            t += w1 * z[k];
            EQNN__K(store)(dg + (size_t)k * a->gs, t);
        }
        EQNN__K(store)(dw, sum);
        EQNN__K(store)(dw0, sum0);
    }
}

/* All that is wanted of the channels from c to end - 1, whole vectors: two at a time where the sums
   of both fit into registers, of which there are 32 with 16 lanes. */
EQNN__INLINE void EQNN__K(path_sized)(const eqnn__path *a, int c, int end, int d3)
{
    int u = c, two = !EQNN__BRIEF && (d3 < 5 || EQNN__LANES == 16);
    if (a->M1) {
        for (; u < end; u += EQNN__W) EQNN__K(path_tangent)(a, u, d3);
        return;
    }
    if (a->dg) {
        for (; two && u + 2 * EQNN__W <= end; u += 2 * EQNN__W)
            EQNN__K(path_forward)(a, u, d3, 2);
        for (; u < end; u += EQNN__W) EQNN__K(path_forward)(a, u, d3, 1);
    }
    if (!a->dx) return;
    for (u = c; d3 < 5 && EQNN__LANES == 16 && u + 2 * EQNN__W <= end; u += 2 * EQNN__W)
        EQNN__K(path_backward)(a, u, d3, 2);
    for (; u < end; u += EQNN__W) EQNN__K(path_backward)(a, u, d3, 1);
}

/* A diagonal M couples component k with component k only: d3 paths of one component each. */
static void EQNN__K(path_component)(eqnn__path *a, int k)
{
    size_t x = (size_t)k * a->xs, g = (size_t)k * a->gs;
    a->d1 = a->d3 = 1;
    a->diagonal = 0;
    a->M += k * EQNN__EDGES;
    if (a->M1) a->M1 += k * EQNN__EDGES;
    if (a->x) a->x += x;
    if (a->x1) a->x1 += x;
    if (a->dx) a->dx += x;
    if (a->g) a->g += g;
    if (a->g1) a->g1 += g;
    if (a->dg) a->dg += g;
}

/* Channels from c on. */
static EQNN__NOINLINE void EQNN__K(path)(const eqnn__path *a, int c)
{
    int end = c + (a->channels - c) / EQNN__W * EQNN__W;
    for (int k = 0; a->diagonal && k < a->d3; k++) {
        eqnn__path component = *a;
        EQNN__K(path_component)(&component, k);
        EQNN__K(path)(&component, c);
    }
    if (a->diagonal) return;
    if (end > c)
        switch (a->d3) {
        case 1: EQNN__K(path_sized)(a, c, end, 1); break;
        case 3: EQNN__K(path_sized)(a, c, end, 3); break;
        case 5: EQNN__K(path_sized)(a, c, end, 5); break;
        case 7: EQNN__K(path_sized)(a, c, end, 7); break;
        default: EQNN__PLAIN(path_plain)(a, (size_t)c); return;
        }
    if (end == a->channels) return;
#ifdef EQNN__NARROW
    EQNN__NARROW(path)(a, end);
#else
    EQNN__PLAIN(path_plain)(a, (size_t)end);
#endif
}

/* All channels: with c known, gcc makes better code of the pass that no wider one calls. */
static void EQNN__K(path_all)(const eqnn__path *a)
{
    EQNN__K(path)(a, 0);
}

/* ---- couple: the gradient of y ----
   dM[i][k] = sum over all paths with this M and channels u of w[u] g[k][u] x[i][u]; channel u is
   summed in lane u % 16, dy[j] = sum C dM is taken in every lane, and the lanes are added last. */

/* to[k] = from[k] + sum_u q[k][u] x[u], and the x go on to the next row. (A branch instead of
   `from` would keep some compilers from contracting the sum, and so change its bits.) */
EQNN__INLINE void EQNN__K(lanes_row)(const eqnn_real **x, const eqnn__factor *f, eqnn_real *to,
                                     const eqnn_real *from, int step, const EQNN__VEC *q, int d3,
                                     int U)
{
    EQNN__VEC x_i[4], sum;
    EQNN__UNROLL(4)
    for (int u = 0; u < U; u++) {
        x_i[u] = EQNN__K(load)(x[u]);
        x[u] += f[u].xs;
    }
    EQNN__UNROLL(8)
    for (int k = 0; k < d3; k++) {
        sum = EQNN__K(load)(from + k * step);
        EQNN__UNROLL(4)
        for (int u = 0; u < U; u++) sum += q[k * U + u] * x_i[u];
        EQNN__K(store)(to + k * 16, sum);
    }
}

/* The lanes of 16 channels each of U paths (or pieces of one) */
EQNN__INLINE void EQNN__K(matrix_lanes)(const eqnn__matrix *m, const eqnn__factor *f, int e, int l,
                                        int add, int d3, int diagonal, int U)
{
    const eqnn_real *x[4], *from = add ? m->lane + l : eqnn__zeros;
    eqnn_real *to = m->lane + l;
    int step = add ? 16 : 0;
    EQNN__VEC q[4 * EQNN__D];
    for (int component = 0; component < (diagonal ? m->d3 : 1); component++) {
        EQNN__UNROLL(4)
        for (int u = 0; u < U; u++) {
            const eqnn_real *g = f[u].g + f[u].go[e] + l + (size_t)component * f[u].gs;
            EQNN__VEC w = EQNN__K(load)(f[u].w + f[u].wo[e] + l);
            if (!component) x[u] = f[u].x + f[u].xo[e] + l;
            EQNN__UNROLL(8)
            for (int k = 0; k < d3; k++) q[k * U + u] = w * EQNN__K(load)(g + (size_t)k * f[u].gs);
        }
        for (int i = 0; i < (diagonal ? 1 : m->d1); i++, to += d3 * 16, from += d3 * step)
            EQNN__K(lanes_row)(x, f, to, from, step, q, d3, U);
    }
}

/* One factor with fewer than 16 channels, of them those from c on; any sizes */
static EQNN__NOINLINE void EQNN__K(matrix_rest)(const eqnn__matrix *m, const eqnn__factor *f,
                                                int e, int c)
{
    int end = c + (f->channels - c) / EQNN__W * EQNN__W;
    for (int n = 0; n < m->d1 * m->d3; n++) {
        int i = n / m->d3, k = n % m->d3;
        if (m->diagonal && i != k) continue;
        const eqnn_real *x = f->x + f->xo[e] + (size_t)i * f->xs, *w = f->w + f->wo[e];
        const eqnn_real *g = f->g + f->go[e] + (size_t)k * f->gs;
        eqnn_real *to = m->lane + (m->diagonal ? k : n) * 16;
        for (int u = c; u < end; u += EQNN__W)
            EQNN__K(store)(to + u, EQNN__K(load)(to + u) + EQNN__K(load)(w + u) *
                                                               EQNN__K(load)(g + u) *
                                                               EQNN__K(load)(x + u));
#ifndef EQNN__NARROW
        for (int u = end; u < f->channels; u++) to[u] += w[u] * g[u] * x[u];
#endif
    }
#ifdef EQNN__NARROW
    if (end < f->channels) EQNN__NARROW(matrix_rest)(m, f, e, end);
#endif
}

/* dy[j] += sum over entries of C dM, for one item and in every lane */
static void EQNN__K(matrix_contract)(const eqnn__matrix *m, int e)
{
    eqnn_real *dy = m->dy + (size_t)e * m->columns * 16;
    for (const eqnn__group *g = m->group; g < m->group + m->groups; g++) {
        const int *entry = m->entry + g->first;
        const eqnn_real *c = m->c + g->first;
        for (int l = 0; l < 16; l += EQNN__W) {
            eqnn_real *to = dy + g->column * 16 + l;
            EQNN__VEC sum = EQNN__K(load)(to);
            for (int r = 0; r < g->count; r++)
                sum += c[r] * EQNN__K(load)(m->lane + entry[r] * 16 + l);
            EQNN__K(store)(to, sum);
        }
    }
}

/* Factors with 16 channels come first. */
EQNN__INLINE void EQNN__K(matrix_sized)(const eqnn__matrix *m, int d3, int diagonal)
{
    size_t size = (size_t)(m->d1 * m->d3) * 16 * sizeof(eqnn_real);
    for (int e = 0; e < m->n; e++) {
        int u = 0;
        if (!m->wide || !d3) memset(m->lane, 0, size);
        for (int l = 0; l < 16 && d3; l += EQNN__W) {
            for (u = 0; u + 4 <= m->wide; u += 4)
                EQNN__K(matrix_lanes)(m, m->factor + u, e, l, u > 0, d3, diagonal, 4);
            for (; u < m->wide; u++)
                EQNN__K(matrix_lanes)(m, m->factor + u, e, l, u > 0, d3, diagonal, 1);
        }
        for (; u < m->factors; u++) EQNN__K(matrix_rest)(m, m->factor + u, e, 0);
        EQNN__K(matrix_contract)(m, e);
    }
}

static void EQNN__K(matrix)(const eqnn__matrix *m)
{
    switch (EQNN__BRIEF ? -1 : m->diagonal ? 0 : m->d3) {
    case 1: EQNN__K(matrix_sized)(m, 1, 0); break;
    case 3: EQNN__K(matrix_sized)(m, 3, 0); break;
    case 5: EQNN__K(matrix_sized)(m, 5, 0); break;
    case 7: EQNN__K(matrix_sized)(m, 7, 0); break;
    case 0: EQNN__K(matrix_sized)(m, 1, 1); break;
    default: EQNN__K(matrix_sized)(m, 0, 0); break;
    }
}

/* ---- couple: a tile ---- */

/* M = C y for the panel's entries and the items from e on; y[column][EQNN__TILE] */
static void EQNN__K(couple_entries)(const eqnn__couple_plan_t *p, const eqnn__panel *q, int e,
                                    const eqnn_real *y, eqnn_real *M)
{
    for (int b = q->block; b < q->block + q->blocks; b++)
        for (int n = p->block[b].first; n < p->block[b].first + p->block[b].count; n++)
            for (int l = 0; l < EQNN__EDGES; l += 2 * EQNN__W) { /* two sums hide the latency */
                EQNN__VEC m = EQNN__K(splat)(0), m1 = EQNN__K(splat)(0);
                const eqnn_real *from = y + e + l;
                for (int r = p->first[n]; r < p->first[n + 1]; r++) {
                    const eqnn_real *v = from + p->j[r] * EQNN__TILE;
                    m += p->c[r] * EQNN__K(load)(v);
                    m1 += p->c[r] * EQNN__K(load)(v + EQNN__W);
                }
                EQNN__K(store)(M + n * EQNN__EDGES + l, m);
                EQNN__K(store)(M + n * EQNN__EDGES + l + EQNN__W, m1);
            }
}

/* out[column][e] += the sum over the 16 lanes of dy[e][column]: halves are added until one is
   left */
static void EQNN__K(couple_fold)(const eqnn__couple_plan_t *p, int n, const eqnn_real *dy,
                                 eqnn_real *out)
{
    for (int e = 0; e < n; e++)
        for (int c = 0; c < p->columns; c++, dy += 16) {
            eqnn_real t[4];
            for (int l = 0; l < 4; l++) t[l] = (dy[l] + dy[l + 8]) + (dy[l + 4] + dy[l + 12]);
            out[c * EQNN__TILE + e] += (t[0] + t[2]) + (t[1] + t[3]);
        }
}

/* ---- couple: fewer than 4 channels, or the last of them: items in the lanes ---- */

/* to[l] = p[row[l]] for n items, zeros after them; and the adjoint p[row[l]] += to[l] */
static void EQNN__K(few_gather)(int n, const eqnn_real *p, const size_t *row, eqnn_real *to)
{
    for (int l = 0; l < n; l++) to[l] = p[row[l]];
    for (int l = n; l < EQNN__EDGES; l++) to[l] = 0;
}

static void EQNN__K(few_scatter)(int n, const eqnn_real *from, eqnn_real *p, const size_t *row)
{
    for (int l = 0; l < n; l++) p[row[l]] += from[l];
}

/* to = from + a b, EQNN__EDGES numbers each */
static void EQNN__K(few_product)(const eqnn_real *a, const eqnn_real *b, const eqnn_real *from,
                                 eqnn_real *to)
{
    for (int l = 0; l < EQNN__EDGES; l += EQNN__W)
        EQNN__K(store)(to + l,
                       EQNN__K(load)(from + l) + EQNN__K(load)(a + l) * EQNN__K(load)(b + l));
}

/* dy[column][EQNN__TILE] += C dM of one channel, dM[i][k] = q[k] x[i] */
static void EQNN__K(few_matrix)(const eqnn__matrix *m, const eqnn_real *x, const eqnn_real *q,
                                eqnn_real *dM, eqnn_real *dy)
{
    for (int i = 0, n = 0; i < m->d1; i++)
        for (int k = 0; k < m->d3; k++)
            if (!m->diagonal || i == k)
                EQNN__K(few_product)(q + k * EQNN__EDGES, x + i * EQNN__EDGES, eqnn__zeros,
                                     dM + n++ * EQNN__EDGES);
    for (const eqnn__group *g = m->group; g < m->group + m->groups; g++)
        for (int r = g->first; r < g->first + g->count; r++)
            for (int l = 0; l < EQNN__EDGES; l += EQNN__W) {
                eqnn_real *to = dy + g->column * EQNN__TILE + l;
                EQNN__VEC d = EQNN__K(load)(dM + m->entry[r] * EQNN__EDGES + l);
                EQNN__K(store)(to, EQNN__K(load)(to) + m->c[r] * d);
            }
}

/* One channel u of a path (no tangents); dy NULL: not wanted. NULL m: neither. */
static void EQNN__K(few_channel)(const eqnn__path *a, int u, eqnn_real *space,
                                 const eqnn__matrix *m, eqnn_real *dy)
{
    eqnn_real *x = space, *g = x + a->d1 * EQNN__EDGES, *q = g + a->d3 * EQNN__EDGES;
    eqnn_real *w = q + a->d3 * EQNN__EDGES, *z = w + EQNN__EDGES, *dw = z + EQNN__EDGES,
              *dM = dw + EQNN__EDGES;
    int back = a->dx || dy;
    EQNN__K(few_gather)(a->n, a->w + u, a->wo, w);
    for (int i = 0; i < a->d1; i++)
        EQNN__K(few_gather)(a->n, a->x + (size_t)i * a->xs + u, a->xo, x + i * EQNN__EDGES);
    for (int k = 0; k < a->d3; k++) {
        int first = a->diagonal ? k : 0, end = a->diagonal ? k + 1 : a->d1;
        if (back) {
            EQNN__K(few_gather)(a->n, a->g + (size_t)k * a->gs + u, a->go, g + k * EQNN__EDGES);
            EQNN__K(few_product)(w, g + k * EQNN__EDGES, eqnn__zeros, q + k * EQNN__EDGES);
        }
        for (int i = first; i < end && (a->dg || a->dx); i++)
            EQNN__K(few_product)(a->M + (a->diagonal ? k : i * a->d3 + k) * EQNN__EDGES,
                                 x + i * EQNN__EDGES, i > first ? z : eqnn__zeros, z);
        if (a->dx) EQNN__K(few_product)(z, g + k * EQNN__EDGES, k > 0 ? dw : eqnn__zeros, dw);
        if (!a->dg) continue;
        EQNN__K(few_product)(z, w, eqnn__zeros, z);
        EQNN__K(few_scatter)(a->n, z, a->dg + (size_t)k * a->gs + u, a->dgo);
    }
    if (a->dx) EQNN__K(few_scatter)(a->n, dw, a->dw + u, a->dwo);
    for (int i = 0; i < a->d1 && a->dx; i++) {
        int first = a->diagonal ? i : 0, end = a->diagonal ? i + 1 : a->d3;
        for (int k = first; k < end; k++)
            EQNN__K(few_product)(a->M + (a->diagonal ? k : i * a->d3 + k) * EQNN__EDGES,
                                 q + k * EQNN__EDGES, k > first ? z : eqnn__zeros, z);
        EQNN__K(few_scatter)(a->n, z, a->dx + (size_t)i * a->xs + u, a->dxo);
    }
    if (dy) EQNN__K(few_matrix)(m, x, q, dM, dy);
}

/* ---- poly: 16 items in the lanes ---- */

/* out[col of slot s] += c product over other slots a of in[a][col of a], over all records */
static void EQNN__K(poly_records)(const eqnn__poly_plan_t *p, int slot, const eqnn_real *const in[],
                                  eqnn_real *out)
{
    for (int l = 0; l < 16; l += EQNN__W)
        for (int r = 0; r < p->records; r++) {
            const int *col = p->col + (size_t)r * (size_t)p->slots;
            EQNN__VEC product = EQNN__K(load)(out) * 0 + p->c[r];
            for (int a = 0; a < p->slots; a++)
                if (a != slot && in[a]) product *= EQNN__K(load)(in[a] + col[a] * 16 + l);
            eqnn_real *to = out + col[slot] * 16 + l;
            EQNN__K(store)(to, EQNN__K(load)(to) + product);
        }
}

/* ---- solid harmonics ----

   EQNN__W points lie in the lanes of a vector, a tile. Degrees up to 6 are explicit polynomials in
   y and s = x^2 + z^2, which do not cancel near the poles as the recursion in y and r^2 does:

       P^l_m, P^l_-m = F_lm A_m, F_lm B_m      A_m + i B_m = (z + i x)^m

       F_lm = c sum over k of (-1)^k r_k y^(l-m-2k) s^k      c^2 = (2 - [m=0]) (2l+1) (l+m)!
                                                                  / (4^m m!^2 (l-m)!)
                                                             r_k = m! (l-m)!
                                                                  / (4^k (m+k)! k! (l-m-2k)!)

   Gradients are sums of harmonics one degree lower (section 10, eqnn__gradient_terms), and higher
   degrees follow from them, l P^l = r . grad P^l (Euler), which is good to rounding at any l. */

#if EQNN__LANES > 1
#define EQNN__ALIGNED __attribute__((aligned(4 * EQNN__LANES)))
#else
#define EQNN__ALIGNED
#endif

/* c v and a - c b */
EQNN__INLINE EQNN__VEC EQNN__K(times)(double c, EQNN__VEC v)
{
    return v * (eqnn_real)c;
}

EQNN__INLINE EQNN__VEC EQNN__K(less_times)(EQNN__VEC a, double c, EQNN__VEC b)
{
    return a - b * (eqnn_real)c;
}

/* What the polynomials are made of. */
typedef struct EQNN__K(solid_point) { EQNN__VEC y, y2, s, s2, A[7], B[7]; } EQNN__K(solid_point);

/* P[m], P[-m] = c F A_m, c F B_m; c is given by its square. P points to the middle of a degree. */
EQNN__INLINE void EQNN__K(solid_pair)(const EQNN__K(solid_point) *p, EQNN__VEC *P, int m, double c2,
                                      EQNN__VEC F)
{
    EQNN__VEC f = EQNN__K(times)(sqrt(c2), F);
    P[m] = f * p->A[m];
    P[-m] = f * p->B[m];
}

EQNN__INLINE void EQNN__K(solid_2)(const EQNN__K(solid_point) *p, EQNN__VEC *P)
{
    P[0] = EQNN__K(times)(sqrt(5.0), EQNN__K(less_times)(p->y2, 0.5, p->s));
    EQNN__K(solid_pair)(p, P, 1, 15, p->y);
    P[2] = EQNN__K(times)(sqrt(15.0 / 4), p->A[2]);
    P[-2] = EQNN__K(times)(sqrt(15.0 / 4), p->B[2]);
}

EQNN__INLINE void EQNN__K(solid_3)(const EQNN__K(solid_point) *p, EQNN__VEC *P)
{
    P[0] = EQNN__K(times)(sqrt(7.0), p->y) * EQNN__K(less_times)(p->y2, 1.5, p->s);
    EQNN__K(solid_pair)(p, P, 1, 42, EQNN__K(less_times)(p->y2, 0.25, p->s));
    EQNN__K(solid_pair)(p, P, 2, 105.0 / 4, p->y);
    P[3] = EQNN__K(times)(sqrt(35.0 / 8), p->A[3]);
    P[-3] = EQNN__K(times)(sqrt(35.0 / 8), p->B[3]);
}

EQNN__INLINE void EQNN__K(solid_4)(const EQNN__K(solid_point) *p, EQNN__VEC *P)
{
    EQNN__VEC y = p->y, y2 = p->y2, s = p->s, s2 = p->s2;
    P[0] = EQNN__K(times)(3, EQNN__K(less_times)(y2, 3, s) * y2 + EQNN__K(times)(0.375, s2));
    EQNN__K(solid_pair)(p, P, 1, 90, y * EQNN__K(less_times)(y2, 0.75, s));
    EQNN__K(solid_pair)(p, P, 2, 405.0 / 4, EQNN__K(less_times)(y2, 1.0 / 6, s));
    EQNN__K(solid_pair)(p, P, 3, 315.0 / 8, y);
    P[4] = EQNN__K(times)(sqrt(315.0 / 64), p->A[4]);
    P[-4] = EQNN__K(times)(sqrt(315.0 / 64), p->B[4]);
}

EQNN__INLINE void EQNN__K(solid_5)(const EQNN__K(solid_point) *p, EQNN__VEC *P)
{
    EQNN__VEC y = p->y, y2 = p->y2, s = p->s, s2 = p->s2, F;
    F = EQNN__K(less_times)(y2, 5, s) * y2 + EQNN__K(times)(1.875, s2);
    P[0] = EQNN__K(times)(sqrt(11.0), y) * F;
    F = EQNN__K(less_times)(y2, 1.5, s) * y2 + EQNN__K(times)(0.125, s2);
    EQNN__K(solid_pair)(p, P, 1, 165, F);
    EQNN__K(solid_pair)(p, P, 2, 1155.0 / 4, y * EQNN__K(less_times)(y2, 0.5, s));
    EQNN__K(solid_pair)(p, P, 3, 385.0 / 2, EQNN__K(less_times)(y2, 0.125, s));
    EQNN__K(solid_pair)(p, P, 4, 3465.0 / 64, y);
    P[5] = EQNN__K(times)(sqrt(693.0 / 128), p->A[5]);
    P[-5] = EQNN__K(times)(sqrt(693.0 / 128), p->B[5]);
}

EQNN__INLINE void EQNN__K(solid_6)(const EQNN__K(solid_point) *p, EQNN__VEC *P)
{
    EQNN__VEC y = p->y, y2 = p->y2, s = p->s, s2 = p->s2, F;
    F = EQNN__K(less_times)(y2, 7.5, s) * y2 + EQNN__K(times)(5.625, s2);
    P[0] = EQNN__K(times)(sqrt(13.0), F * y2 - EQNN__K(times)(0.3125, s2) * s);
    F = EQNN__K(less_times)(y2, 2.5, s) * y2 + EQNN__K(times)(0.625, s2);
    EQNN__K(solid_pair)(p, P, 1, 273, y * F);
    F = (y2 - s) * y2 + EQNN__K(times)(0.0625, s2);
    EQNN__K(solid_pair)(p, P, 2, 1365.0 / 2, F);
    EQNN__K(solid_pair)(p, P, 3, 1365.0 / 2, y * EQNN__K(less_times)(y2, 0.375, s));
    EQNN__K(solid_pair)(p, P, 4, 20475.0 / 64, EQNN__K(less_times)(y2, 0.1, s));
    EQNN__K(solid_pair)(p, P, 5, 9009.0 / 128, y);
    P[6] = EQNN__K(times)(sqrt(3003.0 / 512), p->A[6]);
    P[-6] = EQNN__K(times)(sqrt(3003.0 / 512), p->B[6]);
}

/* Degrees 0..min(lmax, 6) of one tile; its top is known where this is inlined. */
EQNN__INLINE void EQNN__K(solid_low)(int top, int lmax, const EQNN__VEC r[3], EQNN__VEC *P)
{
    EQNN__K(solid_point) p;
    EQNN__VEC x = r[0], z = r[2];
    p.y = r[1];
    p.y2 = p.y * p.y;
    p.s = x * x + z * z;
    p.s2 = p.s * p.s;
    p.A[1] = z;
    p.B[1] = x;
    EQNN__UNROLL(8)
    for (int m = 2; m <= top; m++) {
        p.A[m] = z * p.A[m - 1] - x * p.B[m - 1];
        p.B[m] = z * p.B[m - 1] + x * p.A[m - 1];
    }
    P[0] = EQNN__K(splat)(1);
    if (lmax > 0) {
        P[1] = EQNN__K(times)(sqrt(3.0), x);
        P[2] = EQNN__K(times)(sqrt(3.0), p.y);
        P[3] = EQNN__K(times)(sqrt(3.0), z);
    }
    if (lmax > 1) EQNN__K(solid_2)(&p, P + 6);
    if (lmax > 2) EQNN__K(solid_3)(&p, P + 12);
    if (lmax > 3) EQNN__K(solid_4)(&p, P + 20);
    if (lmax > 4) EQNN__K(solid_5)(&p, P + 30);
    if (lmax > 5) EQNN__K(solid_6)(&p, P + 42);
}

/* The gradient of degree l: G[3 m + axis], -l <= m <= l, from Q, degree l - 1; both point to their
   middles. f: the factors of m = 0..l. */
EQNN__INLINE void EQNN__K(solid_gradient)(int l, const eqnn_real *f, const EQNN__VEC *Q,
                                          EQNN__VEC *G)
{
    EQNN__VEC zero = EQNN__K(splat)(0);
    G[0] = G[2] = zero;
    G[1] = Q[0] * f[1];
    if (l > 1) {
        G[0] = Q[-1] * -f[0];
        G[2] = Q[1] * -f[0];
    }
    for (int m = 1; m <= l; m++) {
        eqnn_real up = f[3 * m], same = f[3 * m + 1], down = f[3 * m + 2];
        EQNN__VEC *a = G + 3 * m, *b = G - 3 * m;
        EQNN__VEC A = Q[m - 1] * down, B = zero, C = zero, D = zero;
        if (m > 1) B = Q[1 - m] * down;
        if (m + 1 < l) {
            C = Q[m + 1] * up;
            D = Q[-m - 1] * up;
        }
        a[0] = -D - B;
        a[1] = b[1] = zero;
        a[2] = A - C;
        b[0] = C + A;
        b[2] = B - D;
        if (m < l) {
            a[1] = Q[m] * same;
            b[1] = Q[-m] * same;
        }
    }
}

/* Gradients of all degrees (G given), and the values of those above 6. */
static void EQNN__K(solid_high)(int lmax, const eqnn_real *f, const EQNN__VEC r[3], EQNN__VEC *P,
                                EQNN__VEC *G)
{
    EQNN__VEC degree[3 * (2 * EQNN__SOLID_LMAX + 1)] EQNN__ALIGNED;
    for (int l = G ? 1 : 7; l <= lmax; l++) {
        EQNN__VEC *p = P + l * l + l, *g = G ? G + 3 * (l * l + l) : degree + 3 * l;
        EQNN__K(solid_gradient)(l, f + 3 * (l * (l + 1) / 2), P + l * l - l, g);
        if (l < 7) continue;
        eqnn_real inverse = (eqnn_real)(1.0 / l);
        for (int m = -l; m <= l; m++)
            p[m] = (r[0] * g[3 * m] + r[1] * g[3 * m + 1] + r[2] * g[3 * m + 2]) * inverse;
    }
}

/* ---- between points in rows and points in lanes ---- */

#if EQNN__LANES > 1
/* Number 3 j + axis of three vectors in a row: from the first two, then from the third. */
#define EQNN__FROM_TWO(j, axis) (3 * (j) + (axis) < 2 * EQNN__W ? 3 * (j) + (axis) : 0)
#define EQNN__FROM_THIRD(j, axis) \
    (3 * (j) + (axis) < 2 * EQNN__W ? (j) : 3 * (j) + (axis) - EQNN__W)
EQNN__INLINE void EQNN__K(solid_load)(const eqnn_real *xyz, EQNN__VEC r[3])
{
    EQNN__VEC a = EQNN__K(load)(xyz), b = EQNN__K(load)(xyz + EQNN__W), t;
    EQNN__VEC c = EQNN__K(load)(xyz + 2 * EQNN__W);
    EQNN__SHUFFLE(t, a, b, EQNN__FROM_TWO, 0);
    EQNN__SHUFFLE(r[0], t, c, EQNN__FROM_THIRD, 0);
    EQNN__SHUFFLE(t, a, b, EQNN__FROM_TWO, 1);
    EQNN__SHUFFLE(r[1], t, c, EQNN__FROM_THIRD, 1);
    EQNN__SHUFFLE(t, a, b, EQNN__FROM_TWO, 2);
    EQNN__SHUFFLE(r[2], t, c, EQNN__FROM_THIRD, 2);
}

#else
EQNN__INLINE void EQNN__K(solid_load)(const eqnn_real *xyz, EQNN__VEC r[3])
{
    for (int i = 0; i < 3; i++) r[i] = xyz[i];
}
#endif

/* Column vectors v[0..W-1] to rows out[0], out[stride], ... of W numbers. */
EQNN__INLINE void EQNN__K(solid_square)(const EQNN__VEC *from, eqnn_real *out, size_t stride)
{
    EQNN__VEC v[EQNN__W];
    EQNN__UNROLL(16)
    for (int i = 0; i < EQNN__W; i++) v[i] = from[i];
    EQNN__K(turn)(v);
    EQNN__UNROLL(16)
    for (int i = 0; i < EQNN__W; i++) EQNN__K(store)(out + (size_t)i * stride, v[i]);
}

/* The way back: v[c] from rows in[0..W-1] of so many columns, at least EQNN__W. */
EQNN__INLINE void EQNN__K(solid_columns)(const eqnn_real *in, int cols, EQNN__VEC *v)
{
    EQNN__VEC square[EQNN__W];
    for (int c = 0; c < cols; c += EQNN__W) {
        if (c + EQNN__W > cols) c = cols - EQNN__W;
        for (int i = 0; i < EQNN__W; i++)
            square[i] = EQNN__K(load)(in + (size_t)i * (size_t)cols + (size_t)c);
        EQNN__K(solid_square)(square, (eqnn_real *)(void *)(v + c), EQNN__W);
    }
}

/* out[point][c] = v[c][point] for the first points of a tile, one number at a time. */
EQNN__INLINE void EQNN__K(solid_few)(const EQNN__VEC *v, int first, int cols, int points,
                                     eqnn_real *out)
{
    const eqnn_real *from = (const eqnn_real *)(const void *)v;
    for (int i = 0; i < points; i++)
        for (int c = first; c < cols; c++)
            out[(size_t)i * (size_t)cols + (size_t)c] = from[c * EQNN__W + i];
}

/* v[c][point] = in[point][c], zeros behind the last point. */
EQNN__INLINE void EQNN__K(solid_few_columns)(const eqnn_real *in, int cols, int points,
                                             EQNN__VEC *v)
{
    eqnn_real *to = (eqnn_real *)(void *)v;
    for (int c = 0; c < cols; c++)
        for (int i = 0; i < EQNN__W; i++)
            to[c * EQNN__W + i] = i < points ? in[(size_t)i * (size_t)cols + (size_t)c] : 0;
}

/* Rows of a tile, in squares when it is full; the last square may overlap the one before. */
static void EQNN__K(solid_rows)(const EQNN__VEC *v, int cols, int points, eqnn_real *out)
{
    int c = 0;
    if (points == EQNN__W && cols >= EQNN__W) {
        for (; c + EQNN__W <= cols; c += EQNN__W)
            EQNN__K(solid_square)(v + c, out + c, (size_t)cols);
        if (cols - c > EQNN__W / 4) {
            c = cols - EQNN__W;
            EQNN__K(solid_square)(v + c, out + c, (size_t)cols);
            return;
        }
    }
    EQNN__K(solid_few)(v, c, cols, points, out);
}

/* ---- the kernel ---- */

/* The next points, at most a tile and with zeros behind the last; returns how many. */
EQNN__INLINE int EQNN__K(solid_tile)(const eqnn_real *xyz, size_t left, EQNN__VEC r[3])
{
    eqnn_real last[3 * EQNN__W] = {0};
    if (left < EQNN__W) {
        memcpy(last, xyz, left * 3 * sizeof *xyz);
        xyz = last;
    }
    EQNN__K(solid_load)(xyz, r);
    return left < EQNN__W ? (int)left : EQNN__W;
}

/* lmax known: the polynomials unroll to straight code. */
static void EQNN__K(solid_values)(int lmax, const EQNN__VEC r[3], EQNN__VEC *P)
{
    switch (EQNN__BRIEF ? 6 : lmax) {
    case 0: EQNN__K(solid_low)(0, 0, r, P); break;
    case 1: EQNN__K(solid_low)(1, 1, r, P); break;
    case 2: EQNN__K(solid_low)(2, 2, r, P); break;
    case 3: EQNN__K(solid_low)(3, 3, r, P); break;
    case 4: EQNN__K(solid_low)(4, 4, r, P); break;
    case 5: EQNN__K(solid_low)(5, 5, r, P); break;
    default: EQNN__K(solid_low)(6, EQNN__BRIEF ? lmax : 6, r, P);
    }
}

static void EQNN__K(solid_block)(const void *work, size_t block, int thread)
{
    const eqnn__solid_job *job = (const eqnn__solid_job *)work;
    EQNN__VEC r[3], P[(EQNN__SOLID_LMAX + 1) * (EQNN__SOLID_LMAX + 1)] EQNN__ALIGNED;
    EQNN__VEC G[3 * (EQNN__SOLID_LMAX + 1) * (EQNN__SOLID_LMAX + 1)] EQNN__ALIGNED;
    int lmax = job->lmax, cols = (lmax + 1) * (lmax + 1);
    size_t end = (block + 1) * job->block < job->n ? (block + 1) * job->block : job->n;
    (void)thread;
    for (int axis = 0; axis < 3; axis++) G[axis] = EQNN__K(splat)(0);
    for (size_t i = block * job->block; i < end; i += EQNN__W) {
        int points = EQNN__K(solid_tile)(job->xyz + 3 * i, end - i, r);
        EQNN__K(solid_values)(lmax, r, P);
        if (job->factors) EQNN__K(solid_high)(lmax, job->factors, r, P, job->J ? G : NULL);
        EQNN__K(solid_rows)(P, cols, points, job->Y + i * (size_t)cols);
        if (job->J) EQNN__K(solid_rows)(G, 3 * cols, points, job->J + i * 3 * (size_t)cols);
    }
}

/* d[axis] += sum over components of g dP/dr_axis; G is room for one degree. */
static void EQNN__K(solid_pull)(int lmax, const eqnn_real *f, const EQNN__VEC r[3], EQNN__VEC *P,
                                const EQNN__VEC *g, EQNN__VEC d[3])
{
    EQNN__VEC degree[3 * (2 * EQNN__SOLID_LMAX + 1)] EQNN__ALIGNED;
    for (int l = 1; l <= lmax; l++) {
        EQNN__VEC *G = degree + 3 * l, *p = P + l * l + l;
        const EQNN__VEC *h = g + l * l + l;
        EQNN__K(solid_gradient)(l, f + 3 * (l * (l + 1) / 2), P + l * l - l, G);
        for (int m = -l; m <= l; m++)
            for (int axis = 0; axis < 3; axis++) d[axis] += h[m] * G[3 * m + axis];
        if (l < 7 || l == lmax) continue;
        eqnn_real inverse = (eqnn_real)(1.0 / l);
        for (int m = -l; m <= l; m++)
            p[m] = (r[0] * G[3 * m] + r[1] * G[3 * m + 1] + r[2] * G[3 * m + 2]) * inverse;
    }
}

static void EQNN__K(solid_pull_block)(const void *work, size_t block, int thread)
{
    const eqnn__solid_job *job = (const eqnn__solid_job *)work;
    EQNN__VEC r[3], d[3], P[(EQNN__SOLID_LMAX + 1) * (EQNN__SOLID_LMAX + 1)] EQNN__ALIGNED;
    EQNN__VEC g[(EQNN__SOLID_LMAX + 1) * (EQNN__SOLID_LMAX + 1)] EQNN__ALIGNED;
    int lmax = job->lmax, cols = (lmax + 1) * (lmax + 1);
    size_t end = (block + 1) * job->block < job->n ? (block + 1) * job->block : job->n;
    (void)thread;
    for (size_t i = block * job->block; i < end; i += EQNN__W) {
        int points = EQNN__K(solid_tile)(job->xyz + 3 * i, end - i, r);
        const eqnn_real *in = job->g + i * (size_t)cols;
        if (points == EQNN__W && cols >= EQNN__W)
            EQNN__K(solid_columns)(in, cols, g);
        else
            EQNN__K(solid_few_columns)(in, cols, points, g);
        for (int axis = 0; axis < 3; axis++) d[axis] = EQNN__K(splat)(0);
        EQNN__K(solid_values)(lmax - 1, r, P);
        EQNN__K(solid_pull)(lmax, job->factors, r, P, g, d);
        EQNN__K(solid_few)(d, 0, 3, points, job->Y + 3 * i);
    }
}

/* ---- the table of this pass ---- */

static const eqnn__loops EQNN__K(loops) = {
    EQNN__LANES == 16 ? "16 lanes" : EQNN__LANES == 8 ? "8 lanes" : EQNN__LANES == 4 ? "4 lanes"
        : "plain",
    EQNN__LANES,
    EQNN__K(TILE_ROWS),
    EQNN__K(fold_rows_block),
    EQNN__K(fold_cols_block),
    EQNN__K(fold_segments_block),
    EQNN__PLAIN(total_block),
    EQNN__K(softmax_block),
    EQNN__K(softmax_rows_block),
    EQNN__K(move_block),
    EQNN__K(update_block),
    EQNN__K(gemv_block),
    EQNN__K(solid_block),
    EQNN__PLAIN(solid_plain),
    EQNN__K(solid_pull_block),
    EQNN__K(map_tile),
    EQNN__K(finite),
    EQNN__K(add_run),
    EQNN__PLAIN(gemm_plain),
    EQNN__K(gemm_block),
    EQNN__K(gemm_add_parts),
    EQNN__K(pack_turned),
    EQNN__K(couple_entries),
    EQNN__K(path_all),
    EQNN__K(few_channel),
    EQNN__K(matrix),
    EQNN__K(couple_fold),
    EQNN__K(poly_records),
    EQNN__PLAIN(mix_item),
    EQNN__PLAIN(copy_item)};

#endif /* EQNN__KERNEL_PASS */

#if defined(EQNN__IMPLEMENTING) && !defined(EQNN__KERNEL_PASS)

/* ---- the kernels of a processor: cut the work, call the loops ---- */

/* ---- map ---- */

/* Whether the operand may be read in runs longer than a tile. */
static int eqnn__map_plain(const eqnn__in *in, size_t rows, size_t cols)
{
    return (in->cs == 1 || in->cs == 0) && (rows == 1 || in->rs == in->cs * cols);
}

static void eqnn__map_block(const void *job, size_t block, int thread)
{
    const eqnn__map_job *j = (const eqnn__map_job *)job;
    size_t cols = j->cols, first = block * j->chunk;
    (void)thread;
    if (j->rows == 1) { /* a run of columns */
        size_t n = cols - first < j->chunk ? cols - first : j->chunk, step = EQNN__STRIP;
        if (eqnn__map_plain(&j->in[0], 1, 1) && eqnn__map_plain(&j->in[1], 1, 1) &&
            eqnn__map_plain(&j->in[2], 1, 1))
            step = j->f ? 4 * EQNN__STRIP : n;
        for (size_t c = 0; c < n; c += step)
            j->loops->map(j, 0, first + c, 1, n - c < step ? n - c : step);
        return;
    }
    size_t last = first + j->chunk < j->rows ? first + j->chunk : j->rows;
    size_t rows = cols <= EQNN__STRIP / 4 ? EQNN__STRIP / cols : 1;
    for (size_t r = first; r < last; r += rows) {
        size_t m = last - r < rows ? last - r : rows;
        if (m > 1 || cols <= EQNN__STRIP) {
            j->loops->map(j, r, 0, m, cols);
        } else {
            for (size_t c = 0; c < cols; c += EQNN__STRIP)
                j->loops->map(j, r, c, 1, cols - c < EQNN__STRIP ? cols - c : EQNN__STRIP);
        }
    }
}

static void eqnn__cpu_map(eqnn__device *d, int op, int order, size_t rows, size_t cols, eqnn__in a,
                          eqnn__in b, eqnn__in c, double p0, double p1, eqnn_real *out)
{
    eqnn__map_job j;
    eqnn__fn f;
    if (rows == 0 || cols == 0) return;
    j.loops = d->loops;
    j.op = op;
    j.operands = op < EQNN__WHERE ? 2 : 3;
    if (op == EQNN__SCALE || (op < EQNN__ADD && !b.p)) j.operands = 1;
    j.in[0] = a;
    j.in[1] = j.operands > 1 ? b : a;
    j.in[2] = j.operands > 2 ? c : a;
    j.p0 = (eqnn_real)(op < EQNN__ADD ? 1 : p0);
    j.p1 = (eqnn_real)(op < EQNN__ADD ? 0 : p1);
    j.out = out;
    j.f = op < EQNN__ADD ? &f : NULL;
    if (j.f) eqnn__fn_make(&f, op, order, p0);
    for (int s = 0; s < 3; s++) {
        if (cols == 1) j.in[s].cs = j.in[s].rs; /* a column is a row */
    }
    if (cols == 1) cols = rows, rows = 1;
    if (eqnn__map_plain(&j.in[0], rows, cols) && eqnn__map_plain(&j.in[1], rows, cols) &&
        eqnn__map_plain(&j.in[2], rows, cols))
        cols *= rows, rows = 1;
    j.rows = rows;
    j.cols = cols;
    size_t grain = j.f ? 8192 : 32768; /* numbers that are worth a thread */
    size_t total = rows * cols, unit = rows == 1 ? 1 : cols;
    j.chunk = total < 2 * grain ? total / unit : grain / unit + (grain < unit);
    eqnn__parallel(d, (total / unit + j.chunk - 1) / j.chunk, eqnn__map_block, &j);
}

/* ---- random numbers, check ---- */

typedef struct eqnn__random_job {
    int kind;
    uint64_t stream;
    size_t n;
    double p;
    eqnn_real *out;
} eqnn__random_job;

static void eqnn__random_block(const void *job, size_t block, int thread)
{
    const eqnn__random_job *j = (const eqnn__random_job *)job;
    size_t last = (block + 1) * 4096 < j->n ? (block + 1) * 4096 : j->n;
    (void)thread;
    for (size_t i = block * 4096; i < last; i++) {
        if (j->kind == EQNN__NORMAL) {
            j->out[i] = (eqnn_real)eqnn__normal(j->stream, i);
            continue;
        }
        double u = (double)(eqnn__random_bits(j->stream, i) >> EQNN__TERMS(40, 11));
        u *= EQNN__TERMS(1.0 / 16777216.0, 1.0 / 9007199254740992.0); /* never rounds up to 1 */
        j->out[i] = (eqnn_real)(j->kind == EQNN__UNIFORM ? u : u < j->p ? 0 : 1 / (1 - j->p));
    }
}

static void eqnn__cpu_random(eqnn__device *d, int kind, uint64_t key, uint64_t tick, size_t n,
                             double p, eqnn_real *out)
{
    eqnn__random_job j;
    j.kind = kind;
    j.stream = eqnn__stream(key, tick);
    j.n = n;
    j.p = p;
    j.out = out;
    eqnn__parallel(d, (n + 4095) / 4096, eqnn__random_block, &j);
}

static void eqnn__cpu_check(eqnn__device *d, size_t n, const eqnn_real *x)
{
    if (!d->loops->finite(n, x)) d->flag = 1;
}

/* ---- folds, softmax, moving rows and columns ---- */

/* Splits `rows` rows of work `cols` each into blocks of j->chunk rows. */
static void eqnn__by_rows(eqnn__device *d, eqnn__rows_job *j, size_t rows, size_t cols,
                          eqnn__work f)
{
    size_t grain = 32768 / (cols ? cols : 1) + 1;
    if (rows == 0) return;
    j->chunk = eqnn__blocks(rows, grain) == 1 ? rows : grain;
    eqnn__parallel(d, (rows + j->chunk - 1) / j->chunk, f, j);
}

static void eqnn__cpu_fold_cols(eqnn__device *d, int op, size_t rows, size_t cols,
                                const eqnn_real *x, eqnn_real *out)
{
    eqnn__rows_job j;
    j.op = op;
    j.rows = rows;
    j.cols = cols;
    j.x = x;
    j.out = out;
    eqnn__by_rows(d, &j, rows, cols, d->loops->fold_cols);
}

static void eqnn__cpu_fold_segments(eqnn__device *d, int op, size_t n, const int *first,
                                    const int *order,
                                    size_t cols, const eqnn_real *x, eqnn_real *out)
{
    eqnn__rows_job j;
    if (n == 0 || cols == 0) return;
    j.op = op;
    j.rows = n;
    j.cols = cols;
    j.first = first;
    j.list = order;
    j.x = x;
    j.out = out;
    eqnn__by_rows(d, &j, n, cols * (1 + (size_t)first[n] / n), d->loops->fold_segments);
}

/* Threads take blocks of 64 columns, unless there is little to do. */
static void eqnn__cpu_fold_rows(eqnn__device *d, int op, size_t rows, size_t cols,
                                const eqnn_real *x, eqnn_real *out)
{
    eqnn__rows_job j;
    if (cols == 0) return;
    j.op = op;
    j.rows = rows;
    j.cols = cols;
    j.chunk = rows * cols < 65536 ? cols : 64;
    j.x = x;
    j.out = out;
    eqnn__parallel(d, (cols + j.chunk - 1) / j.chunk, d->loops->fold_rows, &j);
}

static void eqnn__cpu_total(eqnn__device *d, int squares, size_t n, const eqnn_real *x, double *out)
{
    eqnn__rows_job j;
    double partial[128], sum = 0;
    size_t blocks = n / 65536 + 1 < 128 ? n / 65536 + 1 : 128;
    j.op = squares;
    j.rows = n;
    j.chunk = ((n / blocks + 16) / 16) * 16;
    j.x = x;
    j.partial = partial;
    blocks = (n + j.chunk - 1) / j.chunk;
    eqnn__parallel(d, blocks, d->loops->total, &j);
    for (size_t b = 0; b < blocks; b++) sum += partial[b];
    *out = sum;
}

static void eqnn__cpu_softmax(eqnn__device *d, size_t n, const int *first, const int *order,
                              size_t cols, const eqnn_real *x, eqnn_real *out)
{
    eqnn__rows_job j;
    if (n == 0 || cols == 0) return;
    j.rows = n;
    j.cols = cols;
    j.first = first;
    j.list = order;
    j.x = x;
    j.out = out;
    size_t work = first ? cols * (1 + (size_t)first[n] / n) : cols;
    eqnn__by_rows(d, &j, n, 4 * work, first ? d->loops->softmax : d->loops->softmax_rows);
}

static void eqnn__move(eqnn__device *d, int op, size_t rows, size_t cols, const int *first,
                       const int *list, const eqnn_real *x, size_t ldx, eqnn_real *out,
                       size_t ldo)
{
    eqnn__rows_job j;
    j.op = op;
    j.rows = rows;
    j.cols = cols;
    j.first = first;
    j.list = list;
    j.x = x;
    j.ldx = ldx;
    j.out = out;
    j.ldo = ldo;
    if (cols) eqnn__by_rows(d, &j, rows, cols, d->loops->move);
}

static void eqnn__cpu_take_rows(eqnn__device *d, size_t n, size_t cols, const int *index,
                                const eqnn_real *x, eqnn_real *out)
{
    eqnn__move(d, EQNN__MOVE_TAKE, n, cols, NULL, index, x, cols, out, cols);
}

static void eqnn__cpu_copy2d(eqnn__device *d, size_t rows, size_t cols, const eqnn_real *src,
                             size_t lds, eqnn_real *dst, size_t ldd, int add)
{
    if (lds == cols && ldd == cols && rows > 1) {
        size_t run = 4096, n = rows * cols; /* one array: cut anywhere */
        eqnn__move(d, add ? EQNN__MOVE_ADD : EQNN__MOVE_COPY, n / run, run, NULL, NULL, src, run,
                      dst, run);
        src += n / run * run;
        dst += n / run * run;
        rows = 1;
        cols = n % run;
    }
    eqnn__move(d, add ? EQNN__MOVE_ADD : EQNN__MOVE_COPY, rows, cols, NULL, NULL, src, lds, dst,
                  ldd);
}

static void eqnn__cpu_take_cols(eqnn__device *d, size_t rows, size_t n, const int *map,
                                const eqnn_real *x, size_t ldx, eqnn_real *out)
{
    eqnn__move(d, EQNN__MOVE_TAKE_COLS, rows, n, NULL, map, x, ldx, out, n);
}

static void eqnn__cpu_add_cols(eqnn__device *d, size_t rows, size_t n, const int *first,
                               const int *list, const eqnn_real *x, size_t ldx, eqnn_real *out)
{
    eqnn__move(d, EQNN__MOVE_ADD_COLS, rows, n, first, list, x, ldx, out, n);
}

/* Rows of the result in bands of 16, squares of 16 by 16 at a time. */
static void eqnn__transpose_block(const void *job, size_t block, int thread)
{
    const eqnn__rows_job *j = (const eqnn__rows_job *)job;
    size_t c0 = block * 16, c1 = c0 + 16 < j->cols ? c0 + 16 : j->cols;
    (void)thread;
    for (size_t r0 = 0; r0 < j->rows; r0 += 16) {
        size_t r1 = r0 + 16 < j->rows ? r0 + 16 : j->rows;
        for (size_t c = c0; c < c1; c++)
            for (size_t r = r0; r < r1; r++) j->out[c * j->rows + r] = j->x[r * j->cols + c];
    }
}

static void eqnn__cpu_transpose(eqnn__device *d, size_t rows, size_t cols, const eqnn_real *x,
                                eqnn_real *out)
{
    eqnn__rows_job j;
    eqnn__device one = *d;
    j.rows = rows;
    j.cols = cols;
    j.x = x;
    j.out = out;
    if (rows * cols < 65536) one.threads = 1;
    eqnn__parallel(&one, (cols + 15) / 16, eqnn__transpose_block, &j);
}

/* ---- training step ---- */

/* correct = 1 - beta^t corrects means that began at 0; 0 counts as 1. */
static eqnn__factors eqnn__update_factors(const eqnn__update *u)
{
    eqnn__factors f;
    f.kind = u->kind;
    f.nesterov = u->nesterov;
    f.b1 = (eqnn_real)u->beta1;
    f.c1 = (eqnn_real)(1 - u->beta1);
    f.b2 = (eqnn_real)u->beta2;
    f.c2 = (eqnn_real)(1 - u->beta2);
    f.k1 = (eqnn_real)(u->correct1 > 0 ? u->rate / u->correct1 : u->rate);
    f.k2 = (eqnn_real)(u->correct2 > 0 ? 1 / sqrt(u->correct2) : 1);
    f.eps = (eqnn_real)u->eps;
    f.rate = (eqnn_real)u->rate;
    f.decay = (eqnn_real)u->decay;
    f.l2 = (eqnn_real)u->l2;
    f.momentum = (eqnn_real)u->momentum;
    f.grad_scale = (eqnn_real)u->grad_scale;
    return f;
}

static void eqnn__cpu_update(eqnn__device *d, const eqnn__update *u, size_t n, eqnn_real *w,
                             eqnn_real *g, eqnn_real *s1, eqnn_real *s2)
{
    eqnn__update_job j;
    j.f = eqnn__update_factors(u);
    j.n = n;
    j.w = w;
    j.g = g;
    j.s1 = s1;
    j.s2 = s2;
    eqnn__parallel(d, (n + 8191) / 8192, d->loops->update, &j);
}

/* ---- matrix product ---- */

/* A task: a block of rows and columns, of one batch or of the sum over batches (a part of it). */
static void eqnn__gemm_task(const void *job, size_t task, int thread)
{
    const eqnn__gemm_job *g = (const eqnn__gemm_job *)job;
    size_t i = task % g->row_blocks * g->rows, m = g->m - i < g->rows ? g->m - i : g->rows;
    task /= g->row_blocks;
    size_t j = task % g->col_blocks * g->cols, n = g->n - j < g->cols ? g->n - j : g->cols;
    task /= g->col_blocks; /* now the batch, or the part of the sum */
    size_t per_batch = (g->k + EQNN__GEMM_K - 1) / EQNN__GEMM_K;
    size_t first = task * g->units / g->parts, last = (task + 1) * g->units / g->parts;
    eqnn_real *C = g->partial ? g->partial + task * g->m * g->n : g->C + task * g->sc;
    eqnn_real *packed = g->packed;
    if (packed) packed += (size_t)thread * EQNN__GEMM_ROWS * EQNN__GEMM_K;
    for (size_t u = first; u < last; u++)
        g->loops->gemm_block(g, u / per_batch, u % per_batch * EQNN__GEMM_K, i, m, j, n,
                             u > first ? 1 : g->partial ? 0 : g->beta, C,
                             g->partial ? g->n : g->ldc, packed);
}

/* Where one side is 1: 1 when done. A column from a transposed matrix is a row from the matrix. */
static int eqnn__gemv(eqnn__device *d, eqnn__gemm_job *g)
{
    int column = g->tb || g->ldb == 1, row = !g->ta || g->lda == 1; /* the vector is contiguous */
    const eqnn_real *t = g->A;
    size_t lda = g->lda, sa = g->sa;
    if (g->n == 1 && g->ta && g->ldc == 1) {
        g->A = g->B, g->lda = g->ldb, g->sa = g->sb;
        g->B = t, g->ldb = lda, g->sb = sa;
        g->ta = !g->tb, g->tb = 0;
        g->n = g->m, g->m = 1, g->ldc = g->n;
        return 0;
    }
    if (g->batch > 1) return 0;
    if (g->m == 1 && g->tb && row && g->n > 1) {
        g->A = g->B;
        g->B = t;
        g->lda = g->ldb;
        g->m = g->n;
        g->ldc = 1;
    } else if (g->n != 1 || g->ta || !column) {
        return 0;
    }
    g->rows = 65536 / (g->k + 1) + 1;
    eqnn__parallel(d, (g->m + g->rows - 1) / g->rows, d->loops->gemv, g);
    return 1;
}

/* Cuts the product into tasks, by its sizes only. */
static void eqnn__gemm_cut(const eqnn__device *d, eqnn__gemm_job *g)
{
    size_t per_batch = (g->k + EQNN__GEMM_K - 1) / EQNN__GEMM_K, tile = g->loops->tile_rows;
    size_t bytes = sizeof(eqnn_real) * EQNN__GEMM_ROWS * EQNN__GEMM_K * (size_t)d->threads;
    g->row_blocks = (g->m + EQNN__GEMM_ROWS - 1) / EQNN__GEMM_ROWS;
    g->rows = ((g->m + g->row_blocks - 1) / g->row_blocks + tile - 1) / tile * tile;
    g->row_blocks = (g->m + g->rows - 1) / g->rows;
    g->cols = EQNN__GEMM_COLS;
    g->col_blocks = (g->n + g->cols - 1) / g->cols;
    g->packed = NULL;
    g->partial = NULL;
    g->parts = g->sc == 0 ? 1 : g->batch;
    g->units = per_batch * g->batch;
    if (g->sc == 0 && g->m * g->n <= EQNN__GEMM_SPLIT && g->k >= EQNN__GEMM_SPLIT_K &&
        d->scratch_size >= EQNN__GEMM_PARTS * g->m * g->n * sizeof(eqnn_real)) {
        g->parts = g->units / 4 < EQNN__GEMM_PARTS ? g->units / 4 : EQNN__GEMM_PARTS;
        g->partial = (eqnn_real *)d->scratch;
    } else if (g->n >= EQNN__GEMM_PACK && d->scratch_size >= bytes) {
        g->packed = (eqnn_real *)d->scratch;
    }
}

static void eqnn__cpu_gemm(eqnn__device *d, int ta, int tb, size_t m, size_t n, size_t k,
                           double alpha,
                          const eqnn_real *A, size_t lda, size_t sa, const eqnn_real *B, size_t ldb,
                          size_t sb, double beta, eqnn_real *C, size_t ldc, size_t sc, size_t batch)
{
    eqnn__gemm_job g;
    if (m == 0 || n == 0 || batch == 0) return;
    g.loops = d->loops;
    g.ta = ta, g.tb = tb;
    g.m = m, g.n = n, g.k = k;
    g.A = A, g.lda = lda, g.sa = sa;
    g.B = B, g.ldb = ldb, g.sb = sb;
    g.C = C, g.ldc = ldc, g.sc = batch == 1 ? 0 : sc;
    g.batch = batch;
    g.alpha = (eqnn_real)alpha;
    g.beta = (eqnn_real)beta;
    if (k == 0 || m * n * k <= 32) {
        d->loops->gemm_plain(&g);
        return;
    }
    if ((m == 1 || n == 1) && eqnn__gemv(d, &g)) return;
#ifdef EQNN_CBLAS
    if (m * n * k >= (size_t)128 * 128 * 128 && (sc != 0 || batch == 1)) {
        for (size_t b = 0; b < batch; b++)
            eqnn__blas(ta, tb, m, n, k, alpha, A + b * sa, lda, B + b * sb, ldb, beta, C + b * sc,
                       ldc);
        return;
    }
#endif
    eqnn__gemm_cut(d, &g);
    eqnn__device one = *d;                            /* small products are not worth a thread */
    if (m * n * k * batch < 1000000) one.threads = 1; /* about 20 microseconds                 */
    eqnn__parallel(&one, g.row_blocks * g.col_blocks * g.parts, eqnn__gemm_task, &g);
    if (g.partial) d->loops->gemm_add_parts(&g);
}

/* ---- the four forms ----
   A job walks its parts, a part its tiles; the ..._tile functions add what a tile contributes. */

/* Where a wanted gradient is summed: in the output itself, because its rows have one owner in this
   order; in a row of its own per item; or in one row per part. The latter two are folded
   afterwards. */
enum { EQNN__UNWANTED, EQNN__OWNED, EQNN__BY_ITEM, EQNN__BY_PART };
enum { EQNN__ITEMS, EQNN__TARGETS, EQNN__SOURCES, EQNN__BLOCKS }; /* orders */

typedef struct eqnn__job {
    const eqnn__loops *loops;
    const eqnn__form *f;
    const eqnn_real *const *v, *const *t; /* t NULL: no tangents */
    eqnn_real *const *out;
    unsigned want;
    int order, parts, how[EQNN__SLOTS];
    eqnn_real *sink[EQNN__SLOTS];         /* scratch of the sums that are folded afterwards */
    char *work;                           /* working memory, work_size bytes per thread     */
    size_t work_size;
} eqnn__job;

/* The items of a tile, and where their rows begin in every slot's array and in its sink. */
typedef struct eqnn__tile {
    int n, rows;                          /* items, distinct rows of weights                */
    int item[EQNN__TILE], local[EQNN__TILE], weight_row[EQNN__TILE_ROWS];
    size_t at[EQNN__SLOTS][EQNN__TILE], to[EQNN__SLOTS][EQNN__TILE];
    eqnn_real *sink[EQNN__SLOTS];
} eqnn__tile;

static size_t eqnn__couple_factor_size(const eqnn__couple_plan_t *p)
{
    return 3 * (size_t)p->pieces * sizeof(eqnn__factor);
}

static inline int eqnn__form_row(const eqnn__form *f, int slot, int item)
{
    switch (f->map[slot]) {
    case EQNN__SOURCE: return f->graph->source[item];
    case EQNN__TARGET: return f->graph->target[item];
    case EQNN__PAIR: return f->graph->pair[item];
    case EQNN__ONE: return 0;
    default: return item;
    }
}

static unsigned eqnn__form_mapped(const eqnn__form *f, unsigned want, int map)
{
    unsigned r = 0;
    for (int s = 0; s < f->slots; s++)
        if ((want >> s & 1) && f->map[s] == map) r |= 1u << s;
    return r;
}

/* Blocks are worth their order when each is small, by itself or beside the whole graph. */
static int eqnn__form_blocks(const eqnn__form *f)
{
    const eqnn_graph *g = f->graph;
    if (!g || g->blocks <= 0 || g->sources != g->targets) return 0;
    int most = 0;
    for (int b = 0; b < g->blocks; b++) {
        int edges = g->first[g->block[b + 1]] - g->first[g->block[b]];
        most = edges > most ? edges : most;
    }
    return most <= 1024 || most <= g->edges / 8;
}

/* The order in which the sums of want can be made, and (in *now) those of them that one pass
   serves. */
static int eqnn__form_order(const eqnn__form *f, unsigned want, unsigned *now)
{
    unsigned to = eqnn__form_mapped(f, want, EQNN__TARGET);
    unsigned from = eqnn__form_mapped(f, want, EQNN__SOURCE);
    unsigned present = 0;
    for (int s = 0; s < f->slots; s++) present |= f->cols[s] > 0 ? 1u << s : 0;
    *now = want;
    if (!f->graph) return EQNN__ITEMS;
    if ((to || from || eqnn__form_mapped(f, present, EQNN__PAIR)) && eqnn__form_blocks(f))
        return EQNN__BLOCKS;
    if (to && from) *now = to;
    return to ? EQNN__TARGETS : from ? EQNN__SOURCES : EQNN__ITEMS;
}

static int eqnn__form_how(const eqnn__form *f, int slot, int order)
{
    int map = f->map[slot];
    if (map == EQNN__ONE) return EQNN__BY_PART;
    if (map == EQNN__EACH || order == EQNN__BLOCKS) return EQNN__OWNED;
    if (map == EQNN__TARGET && order == EQNN__TARGETS) return EQNN__OWNED;
    if (map == EQNN__SOURCE && order == EQNN__SOURCES) return EQNN__OWNED;
    return EQNN__BY_ITEM;
}

/* Parts hold at least 32 items. */
static int eqnn__form_parts(const eqnn__form *f, int order, unsigned want)
{
    int most = EQNN__PARTS, parts = f->items / 32;
    for (int s = 0; s < f->slots; s++)
        if ((want >> s & 1) && eqnn__form_how(f, s, order) == EQNN__BY_PART) most = EQNN__PARTIALS;
    return parts < 1 ? 1 : parts < most ? parts : most;
}

/* The first of n owners whose items begin at or after item; first[n+1] ascends. */
static int eqnn__owner_at(const int *first, int n, int64_t item)
{
    int low = 0, high = n;
    while (low < high) {
        int middle = low + (high - low) / 2;
        if (first[middle] >= item) high = middle;
        else low = middle + 1;
    }
    return low;
}

/* Owners [*a, *b) of a part: targets, sources, blocks or items; about as many items in each
   part. */
static void eqnn__form_part(const eqnn__job *job, int part, int *a, int *b)
{
    const eqnn_graph *g = job->f->graph;
    int64_t n = job->f->items, from = n * part / job->parts, to = n * (part + 1) / job->parts;
    int last = part + 1 == job->parts;
    *a = (int)from;
    *b = (int)to;
    if (job->order == EQNN__TARGETS || job->order == EQNN__SOURCES) {
        const int *first = job->order == EQNN__TARGETS ? g->first : g->first_by_source;
        int owners = job->order == EQNN__TARGETS ? g->targets : g->sources;
        *a = part ? eqnn__owner_at(first, owners, from) : 0;
        *b = last ? owners : eqnn__owner_at(first, owners, to);
    } else if (job->order == EQNN__BLOCKS) {
        int p = 0, q = 0;
        while (part && p < g->blocks && g->first[g->block[p]] < from) p++;
        while (q < g->blocks && (last || g->first[g->block[q]] < to)) q++;
        *a = p;
        *b = q;
    }
}

/* Bytes rounded up to whole cache lines. */
static inline size_t eqnn__lines(size_t bytes) { return (bytes + 63) & ~(size_t)63; }

/* Working memory of a thread on couple: pieces, in reals from its start (a piece without use
   has none). */
enum {
    EQNN__AT_Y, EQNN__AT_Y1, EQNN__AT_DY, EQNN__AT_M, EQNN__AT_M1, EQNN__AT_DM, EQNN__AT_H,
    EQNN__AT_H1, EQNN__AT_DH, EQNN__AT_W, EQNN__AT_W1, EQNN__AT_DW, EQNN__AT_DW0, EQNN__AT_ONE,
    EQNN__AT_PACK, EQNN__AT_LANE, EQNN__AT_FEW, EQNN__AT_ZERO, EQNN__AT_SINK, EQNN__AT_END
};

static size_t eqnn__couple_layout(const eqnn__form *f, size_t at[EQNN__AT_END + 1])
{
    const eqnn__couple_plan_t *p = (const eqnn__couple_plan_t *)f->plan;
    size_t rows = EQNN__TILE_ROWS, hidden = f->cols[3] > 0 ? (size_t)f->cols[2] : 0, n = 0;
    size_t width = (size_t)p->width, entries = (size_t)p->entries * EQNN__EDGES;
    size_t columns = (size_t)p->columns * EQNN__TILE;
    for (int i = 0; i < EQNN__AT_END; i++) {
        size_t size = 0;
        at[i] = n;
        if (i <= EQNN__AT_DY) size = columns;
        else if (i <= EQNN__AT_M1) size = entries;
        else if (i == EQNN__AT_DM) size = EQNN__EDGES * 16 * (size_t)p->columns;
        else if (i <= EQNN__AT_DH) size = rows * hidden;
        else if (i <= EQNN__AT_DW0) size = hidden ? rows * width : 0;
        else if (i == EQNN__AT_ONE) size = (size_t)p->channels;
        else if (i == EQNN__AT_PACK) size = 4 * EQNN__EDGES * (size_t)p->channels;
        else if (i == EQNN__AT_LANE) size = 16 * (size_t)p->most;
        else if (i == EQNN__AT_FEW) size = 4 * EQNN__EDGES * (size_t)(p->most + 1);
        else size = (size_t)(f->cols[0] + f->cols[4] + p->channels) + 16;
        n += eqnn__lines(size * sizeof(eqnn_real)) / sizeof(eqnn_real);
    }
    at[EQNN__AT_END] = n;
    return n * sizeof(eqnn_real);
}

/* Working memory of one thread on a form: the tile, what the kernel adds, and a little for
   vectors. */
static size_t eqnn__form_work(const eqnn__form *f)
{
    size_t at[EQNN__AT_END + 1], n = eqnn__lines(sizeof(eqnn__tile)) + 4096;
    if (f->kind == EQNN__COUPLE) {
        const eqnn__couple_plan_t *p = (const eqnn__couple_plan_t *)f->plan;
        size_t rows = EQNN__TILE_ROWS, width = (size_t)p->width, H = (size_t)f->cols[2];
        size_t gemm = 0, b;
        eqnn__device one;
        memset(&one, 0, sizeof one);
        one.threads = 1;
        n += eqnn__couple_layout(f, at) + eqnn__lines(eqnn__couple_factor_size(p));
        if (f->cols[3] > 0) {
            gemm = eqnn__gemm_scratch(&one, rows, width, H);
            b = eqnn__gemm_scratch(&one, rows, H, width);
            gemm = gemm > b ? gemm : b;
            b = eqnn__gemm_scratch(&one, H, width, rows);
            gemm = gemm > b ? gemm : b;
        }
        n += gemm;
    } else if (f->kind == EQNN__POLY) {
        const eqnn__poly_plan_t *p = (const eqnn__poly_plan_t *)f->plan;
        n += (2 * EQNN__SLOTS + 1) * 16 * (size_t)p->widest * sizeof(eqnn_real);
    }
    return eqnn__lines(n);
}

/* mix whose rows are their own and whose weights all share, or every row has its own: plain matrix
   products. */
static int eqnn__mix_is_products(const eqnn__form *f)
{
    return f->kind == EQNN__MIX && f->map[0] == EQNN__EACH && f->map[2] == EQNN__EACH &&
           (f->map[1] == EQNN__ONE || f->map[1] == EQNN__EACH);
}

static size_t eqnn__mix_scratch(const eqnn__form *f, int threads)
{
    const eqnn__mix_plan_t *p = (const eqnn__mix_plan_t *)f->plan;
    size_t most = 64, n = (size_t)f->items;
    eqnn__device d;
    memset(&d, 0, sizeof d);
    d.threads = threads;
    for (int b = 0; b < p->blocks; b++) {
        size_t U = (size_t)p->block[b].U, V = (size_t)p->block[b].V;
        size_t s[3];
        if (f->map[1] == EQNN__EACH) n = (size_t)p->block[b].d;
        s[0] = eqnn__gemm_scratch(&d, n, U, V);
        s[1] = eqnn__gemm_scratch(&d, U, V, n);
        s[2] = eqnn__gemm_scratch(&d, n, V, U);
        for (int i = 0; i < 3; i++) most = s[i] > most ? s[i] : most;
    }
    return most;
}

/* ---- couple: a tile ---- */

/* How many items from e on have rows of y at equal distances, at most `most`. */
static int eqnn__couple_even(const eqnn__tile *t, int e, int most)
{
    const size_t *at = t->at[1] + e;
    int n = 1;
    if (most > t->n - e) most = t->n - e;
    if (most > 1 && at[1] <= at[0]) return 1;
    while (n < most && at[n] - at[n - 1] == at[1] - at[0]) n++;
    return n;
}

/* out[c][e] = column[c] of the row of item e, for the columns of y that the plan reads; a vector of
   items at a time where rows and columns follow each other, else four, the last ones repeated */
static void eqnn__couple_columns(const eqnn__loops *loops, const eqnn__couple_plan_t *p,
                                 const eqnn__tile *t, const eqnn_real *y, eqnn_real *out)
{
    int W = loops->lanes * 4 / (int)sizeof *y, run = 0;
    while (run < p->columns && p->column[run] == p->column[0] + run) run++;
    if (run < p->columns || W == 1) run = 0;
    for (int e = 0; e < t->n; e += 4, out += 4) {
        const eqnn_real *row[4];
        for (; run && eqnn__couple_even(t, e, W) == W; e += W, out += W)
            loops->turn((size_t)run, (size_t)W, y + t->at[1][e] + (size_t)p->column[0],
                        t->at[1][e + 1] - t->at[1][e], out, EQNN__TILE);
        if (e >= t->n) return;
        for (int l = 0; l < 4; l++) row[l] = y + t->at[1][e + l < t->n ? e + l : t->n - 1];
        for (int c = 0; c < p->columns; c++) {
            int column = p->column[c];
            EQNN__UNROLL(4)
            for (int l = 0; l < 4; l++) out[c * EQNN__TILE + l] = row[l][column];
        }
    }
}

/* What the paths of a tile need beyond the job. */
typedef struct eqnn__couple_work {
    const eqnn__job *job;
    const eqnn__loops *loops;
    const eqnn__couple_plan_t *plan;
    eqnn__tile *t;
    eqnn__device device;
    eqnn_real *at[EQNN__AT_END];
    eqnn__factor *factor;
    int hidden;               /* columns of h when V is present, else 0           */
    unsigned has;             /* tangents that are there                          */
    size_t wo[EQNN__TILE];    /* rows of the panel's weights                      */
    const size_t *dwo;
    const eqnn_real *w, *w1; /* the panel's weights and tangents, NULL: not there */
    eqnn_real *dw, *dw0;     /* and their gradients                               */
    size_t none[EQNN__TILE]; /* zeros: rows of what is not there                  */
} eqnn__couple_work;

/* An operand with the path's column added, or zeros (a sink for what is not wanted) instead. */
static const eqnn_real *eqnn__couple_in(const eqnn__couple_work *k, const eqnn_real *p,
                                        int column, const size_t *rows, const size_t **to)
{
    *to = p ? rows : k->none;
    return p ? p + column : k->at[EQNN__AT_ZERO];
}

static eqnn_real *eqnn__couple_out(const eqnn__couple_work *k, eqnn_real *p, int column,
                                   const size_t *rows, const size_t **to)
{
    *to = p ? rows : k->none;
    return p ? p + column : k->at[EQNN__AT_SINK];
}

/* Copies weights that are not adjacent to rows of their own, n items; and adds gradients back. */
static const eqnn_real *eqnn__couple_pack(const eqnn__step *s, int n, const eqnn_real *w,
                                          const size_t *rows, eqnn_real *to, size_t *at)
{
    for (int e = 0; e < n; e++) {
        at[e] = (size_t)e * (size_t)s->channels;
        for (int u = 0; u < s->channels; u++)
            to[at[e] + (size_t)u] = w ? w[rows[e] + (size_t)u * (size_t)s->ws] : 0;
    }
    return to;
}

static void eqnn__couple_unpack(const eqnn__step *s, int n, const eqnn_real *dw,
                                const size_t *at, eqnn_real *to, const size_t *rows)
{
    for (int e = 0; e < n; e++)
        for (int u = 0; u < s->channels; u++)
            to[rows[e] + (size_t)u * (size_t)s->ws] += dw[at[e] + (size_t)u];
}

/* The operands of a path for n items from e on. */
static void eqnn__couple_operands(const eqnn__couple_work *k, const eqnn__step *s, int e,
                                  int n, eqnn__path *a)
{
    const eqnn__job *j = k->job;
    int weights = s->w >= 0 && j->f->cols[2] > 0;
    a->n = n, a->d1 = s->d1, a->d3 = s->d3, a->diagonal = s->diagonal, a->channels = s->channels;
    a->xs = (size_t)s->xs, a->gs = (size_t)s->gs;
    a->M = k->at[EQNN__AT_M] + (size_t)s->m * EQNN__EDGES;
    a->M1 = j->t ? k->at[EQNN__AT_M1] + (size_t)s->m * EQNN__EDGES : NULL;
    a->x = eqnn__couple_in(k, j->v[0], s->x, k->t->at[0] + e, &a->xo);
    a->g = eqnn__couple_in(k, j->v[4], s->g, k->t->at[4] + e, &a->go);
    a->w = eqnn__couple_in(k, weights ? k->w : k->at[EQNN__AT_ONE], weights ? s->w : 0,
                              weights ? k->wo + e : k->none, &a->wo);
    a->x1 = eqnn__couple_in(k, k->has & 1 ? j->t[0] : NULL, s->x, k->t->at[0] + e, &a->x1o);
    a->g1 = eqnn__couple_in(k, k->has & 16 ? j->t[4] : NULL, s->g, k->t->at[4] + e, &a->g1o);
    a->w1 = eqnn__couple_in(k, weights ? k->w1 : NULL, s->w, k->wo + e, &a->w1o);
}

/* The channels from c on of a path, tangents one at a time: which of dx, dw, dy an operand's
   tangent adds to is all but its own. */
static void eqnn__path_few(const eqnn__couple_work *k, const eqnn__path *a, int c,
                           const eqnn__matrix *m, eqnn_real *dy)
{
    eqnn_real *space = k->at[EQNN__AT_FEW], *sink = k->at[EQNN__AT_SINK];
    for (int u = c; u < a->channels; u++) {
        eqnn__path b = *a;
        b.M1 = NULL;
        if (!a->M1) {
            k->loops->few(&b, u, space, m, dy);
            continue;
        }
        b.x = a->x1, b.xo = a->x1o, b.dx = a->dx ? sink : NULL, b.dxo = k->none;
        if (k->has & 1) k->loops->few(&b, u, space, m, dy);
        b = *a, b.M1 = NULL, b.M = a->M1;
        if (k->has & 2) k->loops->few(&b, u, space, m, NULL);
        b.M = a->M, b.w = a->w1, b.wo = a->w1o, b.dw = sink, b.dwo = k->none;
        if (a->w1 != k->at[EQNN__AT_ZERO]) k->loops->few(&b, u, space, m, dy);
        b = *a, b.M1 = NULL, b.g = a->g1, b.go = a->g1o, b.dg = NULL;
        if (k->has & 16) k->loops->few(&b, u, space, m, dy);
        b = *a, b.M1 = NULL, b.dg = NULL, b.dx = sink, b.dxo = k->none, b.dw = a->dw0,
        b.dwo = a->dw0o;
        if (a->dx && a->dw0o != k->none) k->loops->few(&b, u, space, m, NULL);
    }
}

/* Tangents of dg alone: three forward passes, whose sums stay in registers. */
static void eqnn__path_forward_tangents(const eqnn__couple_work *k, const eqnn__path *a)
{
    eqnn__path b = *a;
    b.M1 = NULL, b.dx = NULL;
    if (k->has & 2) b.M = a->M1, k->loops->path(&b);
    b.M = a->M, b.x = a->x1, b.xo = a->x1o;
    if (k->has & 1) k->loops->path(&b);
    b.x = a->x, b.xo = a->xo, b.w = a->w1, b.wo = a->w1o;
    if (a->w1 != k->at[EQNN__AT_ZERO]) k->loops->path(&b);
}

/* dx alone is dg with x and g in each other's place, and M transposed. */
static void eqnn__path_turned(const eqnn__couple_work *k, const eqnn__path *a)
{
    eqnn_real *space = k->at[EQNN__AT_FEW];
    eqnn__path b = *a;
    b.d1 = a->d3, b.d3 = a->d1, b.xs = a->gs, b.gs = a->xs;
    b.x = a->g, b.xo = a->go;
    b.dg = a->dx, b.dgo = a->dxo, b.dx = NULL;
    for (int n = 0; n < a->d1 * a->d3 && !a->diagonal; n++)
        memcpy(space + (n % a->d3 * a->d1 + n / a->d3) * EQNN__EDGES, a->M + n * EQNN__EDGES,
               EQNN__EDGES * sizeof *space);
    if (!a->diagonal) b.M = space;
    k->loops->path(&b);
}

/* One path: the wanted ones of dx, dg and the gradient of the weights. */
static void eqnn__couple_one(const eqnn__couple_work *k, const eqnn__step *s, int e, int n)
{
    eqnn__path a;
    size_t at[EQNN__EDGES], size = EQNN__EDGES * (size_t)k->plan->channels;
    const size_t *rows = k->wo + e;
    eqnn_real *pack = k->at[EQNN__AT_PACK];
    int c, weights = s->w >= 0 && k->job->f->cols[2] > 0, packed = weights && s->ws != 1;
    eqnn_real *dw = weights ? k->dw : NULL, *dw0 = weights ? k->dw0 : NULL;
    eqnn_real *dx = k->job->want & 1 ? k->t->sink[0] : NULL,
              *dg = k->job->want & 16 ? k->t->sink[4] : NULL;
    eqnn__couple_operands(k, s, e, n, &a);
    if ((!dx && !dg && !dw) || (s->w < 0 && k->job->f->weighted)) return;
    a.dx = eqnn__couple_out(k, dx, s->x, k->t->to[0] + e, &a.dxo);
    a.dg = eqnn__couple_out(k, dg, s->g, k->t->to[4] + e, &a.dgo);
    a.dw = eqnn__couple_out(k, dw, s->w, k->dwo + e, &a.dwo);
    a.dw0 = eqnn__couple_out(k, dw0, s->w, k->dwo + e, &a.dw0o);
    if (!k->job->t && !dg) a.dg = NULL;
    if (!k->job->t && !dx && !dw) a.dx = NULL;
    if (packed) {
        a.w = eqnn__couple_pack(s, n, k->w ? a.w : NULL, rows, pack, at), a.wo = at;
        if (k->w1) a.w1 = eqnn__couple_pack(s, n, a.w1, rows, pack + size, at), a.w1o = at;
        if (dw)
            a.dw = (eqnn_real *)eqnn__couple_pack(s, n, NULL, rows, pack + 2 * size, at),
            a.dwo = at;
        if (dw0)
            a.dw0 = (eqnn_real *)eqnn__couple_pack(s, n, NULL, rows, pack + 3 * size, at),
            a.dw0o = at;
    }
    a.channels &= ~3;
    if (a.M1 && !dx && !dw) eqnn__path_forward_tangents(k, &a);
    else if (!a.M1 && !dg && !dw) eqnn__path_turned(k, &a);
    else k->loops->path(&a);
    c = a.channels;
    a.channels = s->channels;
    if (c < a.channels) eqnn__path_few(k, &a, c, NULL, NULL);
    if (packed && dw) eqnn__couple_unpack(s, n, a.dw, at, dw + s->w, k->dwo + e);
    if (packed && dw0) eqnn__couple_unpack(s, n, a.dw0, at, dw0 + s->w, k->dwo + e);
}

/* Lists w g x of a path in pieces of 16 channels (rest 0) or what is left over (rest 1). */
static int eqnn__couple_factors(const eqnn__path *a, int rest, eqnn__factor *f)
{
    int n = 0, whole = a->channels & ~15, end = a->channels & ~3;
    for (int c = rest ? whole : 0; c < (rest ? end : whole); c += 16, n++) {
        f[n].channels = end - c < 16 ? end - c : 16;
        f[n].xs = a->xs, f[n].gs = a->gs;
        f[n].x = a->x + c, f[n].g = a->g + c, f[n].w = a->w + c;
        f[n].xo = a->xo, f[n].go = a->go, f[n].wo = a->wo;
    }
    return n;
}

/* The same with the tangents of w, g and x put in, one at a time. */
static int eqnn__couple_factors_all(const eqnn__couple_work *k, const eqnn__path *a, int rest,
                                    eqnn__factor *f)
{
    int n = 0;
    eqnn__path b = *a;
    if (!k->job->t) return eqnn__couple_factors(a, rest, f);
    b.x = a->x1, b.xo = a->x1o;
    if (k->has & 1) n += eqnn__couple_factors(&b, rest, f + n);
    b = *a, b.g = a->g1, b.go = a->g1o;
    if (k->has & 16) n += eqnn__couple_factors(&b, rest, f + n);
    b = *a, b.w = a->w1, b.wo = a->w1o;
    if (a->w1 != k->at[EQNN__AT_ZERO]) n += eqnn__couple_factors(&b, rest, f + n);
    return n;
}

/* dy through one M, from all paths of the panel that share it. */
static void eqnn__couple_matrix(const eqnn__couple_work *k, const eqnn__panel *q, int first,
                                int e, int n)
{
    eqnn__matrix m;
    size_t at[EQNN__EDGES], size = EQNN__EDGES * (size_t)k->plan->channels;
    eqnn_real *pack = k->at[EQNN__AT_PACK], *dy = k->at[EQNN__AT_DY] + e;
    memset(&m, 0, sizeof m);
    m.n = n, m.columns = (size_t)k->plan->columns;
    m.factor = k->factor, m.lane = k->at[EQNN__AT_LANE], m.dy = k->at[EQNN__AT_DM];
    m.entry = k->plan->back_entry, m.c = k->plan->back_c;
    for (int rest = 0; rest < 2; rest++) {
        for (int p = q->path; p < q->path + q->paths; p++) {
            const eqnn__step *s = k->plan->path + p;
            const eqnn__span *back = k->plan->back + s->block;
            eqnn__path a;
            if (s->m != first || s->ws != 1 || (s->w < 0 && k->job->f->weighted)) continue;
            eqnn__couple_operands(k, s, e, n, &a);
            m.factors += eqnn__couple_factors_all(k, &a, rest, k->factor + m.factors);
            m.d1 = s->d1, m.d3 = s->d3, m.diagonal = s->diagonal;
            m.group = k->plan->group + back->first, m.groups = back->count;
            a.dg = a.dx = NULL;
            if (rest) eqnn__path_few(k, &a, s->channels & ~3, &m, dy);
        }
        if (!rest) m.wide = m.factors;
    }
    if (m.factors) k->loops->matrix(&m);
    for (int p = q->path; p < q->path + q->paths; p++) { /* packed weights: one path at a time */
        const eqnn__step *s = k->plan->path + p;
        const eqnn__span *back = k->plan->back + s->block;
        eqnn__path a;
        if (s->m != first || s->ws == 1 || (s->w < 0 && k->job->f->weighted)) continue;
        eqnn__couple_operands(k, s, e, n, &a);
        if (s->w >= 0 && k->w) a.w = eqnn__couple_pack(s, n, a.w, a.wo, pack, at), a.wo = at;
        if (s->w >= 0 && k->w1)
            a.w1 = eqnn__couple_pack(s, n, a.w1, a.w1o, pack + size, at), a.w1o = at;
        m.wide = m.factors = eqnn__couple_factors_all(k, &a, 0, k->factor);
        m.factors += eqnn__couple_factors_all(k, &a, 1, k->factor + m.wide);
        m.d1 = s->d1, m.d3 = s->d3, m.diagonal = s->diagonal;
        m.group = k->plan->group + back->first, m.groups = back->count;
        a.dg = a.dx = NULL;
        if (m.factors) k->loops->matrix(&m);
        eqnn__path_few(k, &a, s->channels & ~3, &m, dy);
    }
}

/* All paths of a panel. */
static void eqnn__couple_paths(eqnn__couple_work *k, const eqnn__panel *q)
{
    eqnn_real *dy = k->job->want & 2 ? k->at[EQNN__AT_DM] : NULL;
    for (int e = 0; e < k->t->n; e += EQNN__EDGES) {
        int n = k->t->n - e < EQNN__EDGES ? k->t->n - e : EQNN__EDGES;
        k->loops->entries(k->plan, q, e, k->at[EQNN__AT_Y], k->at[EQNN__AT_M]);
        if (k->has & 2) k->loops->entries(k->plan, q, e, k->at[EQNN__AT_Y1], k->at[EQNN__AT_M1]);
        for (int p = q->path; p < q->path + q->paths; p++)
            eqnn__couple_one(k, k->plan->path + p, e, n);
        if (!dy) continue;
        memset(dy, 0, (size_t)(n * k->plan->columns) * 16 * sizeof(eqnn_real));
        for (int b = q->block; b < q->block + q->blocks; b++)
            eqnn__couple_matrix(k, q, k->plan->block[b].first, e, n);
        k->loops->fold(k->plan, n, dy, k->at[EQNN__AT_DY] + e);
    }
}

/* C [m,n] (ld ldc) = or += op(A) op(B) */
static void eqnn__couple_gemm(eqnn__couple_work *k, int ta, int tb, int m, int n, int depth,
                              const eqnn_real *A, size_t lda, const eqnn_real *B, size_t ldb,
                              int add, eqnn_real *C, size_t ldc)
{
    eqnn__cpu_gemm(&k->device, ta, tb, (size_t)m, (size_t)n, (size_t)depth, 1, A, lda, 0, B, ldb, 0,
                  add, C, ldc, 0, 1);
}

/* A panel of weights made by a last layer: W = h V, dh += dW V', dV += h' dW (and tangents). */
static void eqnn__couple_weights(eqnn__couple_work *k, const eqnn__panel *q)
{
    const eqnn__job *j = k->job;
    int rows = k->t->rows, H = k->hidden, N = q->width;
    size_t ld = (size_t)N, ldh = (size_t)H, ldv = (size_t)j->f->cols[3], start = (size_t)q->start;
    const eqnn_real *V = j->v[3] ? j->v[3] + start : NULL, *h = k->at[EQNN__AT_H];
    const eqnn_real *V1 = k->has & 8 ? j->t[3] + start : NULL, *h1 = k->at[EQNN__AT_H1];
    eqnn_real *W = k->at[EQNN__AT_W], *W1 = k->at[EQNN__AT_W1], *dV = k->t->sink[3] + start;
    eqnn_real *dW = k->at[EQNN__AT_DW], *dW0 = k->at[EQNN__AT_DW0], *dh = k->at[EQNN__AT_DH];
    int dw = N && (j->want & 12), dw0 = dw && (k->has & 12);
    if (N && V && j->v[2]) eqnn__couple_gemm(k, 0, 0, rows, N, H, h, ldh, V, ldv, 0, W, ld);
    if (N && (k->has & 4) && V)
        eqnn__couple_gemm(k, 0, 0, rows, N, H, h1, ldh, V, ldv, 0, W1, ld);
    if (N && V1 && j->v[2])
        eqnn__couple_gemm(k, 0, 0, rows, N, H, h, ldh, V1, ldv, (k->has & 4) && V, W1, ld);
    if (dw) memset(dW, 0, (size_t)rows * ld * sizeof(eqnn_real));
    if (dw0) memset(dW0, 0, (size_t)rows * ld * sizeof(eqnn_real));
    for (int e = 0; e < k->t->n; e++) k->wo[e] = (size_t)k->t->local[e] * ld;
    k->dwo = k->wo;
    k->w = V && j->v[2] ? W - start : NULL;
    k->w1 = k->has & 12 ? W1 - start : NULL;
    k->dw = dw ? dW - start : NULL;
    k->dw0 = dw0 ? dW0 - start : NULL;
    eqnn__couple_paths(k, q);
    if (dw && (j->want & 4) && V)
        eqnn__couple_gemm(k, 0, 1, rows, H, N, dW, ld, V, ldv, 1, dh, ldh);
    if (dw && (j->want & 8) && j->v[2])
        eqnn__couple_gemm(k, 1, 0, H, N, rows, h, ldh, dW, ld, 1, dV, ldv);
    if (dw0 && (j->want & 4) && V1)
        eqnn__couple_gemm(k, 0, 1, rows, H, N, dW0, ld, V1, ldv, 1, dh, ldh);
    if (dw0 && (j->want & 8) && (k->has & 4))
        eqnn__couple_gemm(k, 1, 0, H, N, rows, h1, ldh, dW0, ld, 1, dV, ldv);
}

static void eqnn__couple_rows(const eqnn__tile *t, int H, const eqnn_real *h, eqnn_real *out)
{
    for (int r = 0; r < t->rows; r++)
        memcpy(out + (size_t)r * (size_t)H, h + (size_t)t->weight_row[r] * (size_t)H,
               (size_t)H * sizeof(eqnn_real));
}

static void eqnn__couple_tile(eqnn__couple_work *k)
{
    const eqnn__job *j = k->job;
    const eqnn__couple_plan_t *p = k->plan;
    eqnn__tile *t = k->t;
    size_t columns = (size_t)p->columns * EQNN__TILE * sizeof(eqnn_real);
    int H = k->hidden;
    if (j->v[1]) eqnn__couple_columns(k->loops, p, t, j->v[1], k->at[EQNN__AT_Y]);
    if (k->has & 2) eqnn__couple_columns(k->loops, p, t, j->t[1], k->at[EQNN__AT_Y1]);
    if (j->want & 2) memset(k->at[EQNN__AT_DY], 0, columns);
    if (H && j->v[2]) eqnn__couple_rows(t, H, j->v[2], k->at[EQNN__AT_H]);
    if (H && (k->has & 4)) eqnn__couple_rows(t, H, j->t[2], k->at[EQNN__AT_H1]);
    if (H && (j->want & 4))
        memset(k->at[EQNN__AT_DH], 0, (size_t)(t->rows * H) * sizeof(eqnn_real));
    if (!H) memcpy(k->wo, t->at[2], sizeof k->wo);
    k->dwo = t->to[2];
    k->w = j->v[2];
    k->w1 = k->has & 4 ? j->t[2] : NULL;
    k->dw = j->want & 4 ? t->sink[2] : NULL;
    if (!H) eqnn__couple_paths(k, p->panel + p->panels);
    for (int q = 0; q < p->panels && H; q++) eqnn__couple_weights(k, p->panel + q);
    if (j->want & 2)
        for (int e = 0; e < t->n; e++)
            for (int c = 0; c < p->columns; c++)
                t->sink[1][t->to[1][e] + (size_t)p->column[c]] +=
                    k->at[EQNN__AT_DY][c * EQNN__TILE + e];
    if (H && (j->want & 4))
        for (int e = 0, seen = 0; e < t->n; e++) {
            if (t->local[e] < seen) continue; /* the row has been added at its first item */
            const eqnn_real *from = k->at[EQNN__AT_DH] + (size_t)seen++ * (size_t)H;
            k->loops->add(from, t->sink[2] + t->to[2][e], (size_t)H);
        }
}

static void eqnn__couple_begin(eqnn__couple_work *k, const eqnn__job *j, eqnn__tile *t,
                               char *memory)
{
    size_t at[EQNN__AT_END + 1];
    size_t used = eqnn__couple_layout(j->f, at);
    memset(k, 0, sizeof *k);
    k->job = j;
    k->loops = k->device.loops = j->loops;
    k->t = t;
    k->plan = (const eqnn__couple_plan_t *)j->f->plan;
    k->hidden = j->f->cols[3] > 0 ? j->f->cols[2] : 0;
    for (int i = 0; i < EQNN__AT_END; i++) k->at[i] = (eqnn_real *)(void *)memory + at[i];
    for (int s = 0; s < 5 && j->t; s++) k->has |= j->t[s] && j->f->cols[s] > 0 ? 1u << s : 0;
    k->device.threads = 1;
    k->factor = (eqnn__factor *)(void *)(memory + used);
    used += eqnn__lines(eqnn__couple_factor_size(k->plan));
    k->device.scratch = memory + used;
    k->device.scratch_size = j->work_size - used;
    memset(k->at[EQNN__AT_Y], 0,
           (size_t)(k->at[j->t ? EQNN__AT_DY : EQNN__AT_Y1] - k->at[EQNN__AT_Y]) *
               sizeof(eqnn_real));
    if (j->t)
        memset(k->at[EQNN__AT_M1], 0,
               (size_t)(k->at[EQNN__AT_DM] - k->at[EQNN__AT_M1]) * sizeof(eqnn_real));
    memset(k->at[EQNN__AT_ZERO], 0,
           (size_t)(k->at[EQNN__AT_END - 1] - k->at[EQNN__AT_ZERO]) * sizeof(eqnn_real));
    for (int c = 0; c < k->plan->channels; c++) k->at[EQNN__AT_ONE][c] = 1;
}

/* ---- poly: 16 items in the lanes ---- */

/* in [used][16] = columns of the rows of items e.. of a slot; missing items are zeros */
static void eqnn__poly_pack(const eqnn__poly_plan_t *p, int slot, const eqnn__tile *t, int e,
                            const eqnn_real *v, eqnn_real *in)
{
    const int *column = p->column[slot];
    int n = t->n - e < 16 ? t->n - e : 16;
    if (n < 16) memset(in, 0, (size_t)p->used[slot] * 16 * sizeof *in);
    for (int l = 0; l < n; l++) {
        const eqnn_real *row = v + t->at[slot][e + l];
        for (int c = 0; c < p->used[slot]; c++) in[c * 16 + l] = row[column[c]];
    }
}

static void eqnn__poly_tile(const eqnn__job *j, eqnn__tile *t, char *memory)
{
    const eqnn__poly_plan_t *p = (const eqnn__poly_plan_t *)j->f->plan;
    size_t piece = (size_t)p->widest * 16;
    eqnn_real *value = (eqnn_real *)(void *)memory, *tangent = value + EQNN__SLOTS * piece;
    eqnn_real *out = tangent + EQNN__SLOTS * piece;
    const eqnn_real *in[EQNN__SLOTS];
    for (int e = 0; e < t->n; e += 16) {
        for (int s = 0; s < p->slots; s++) {
            in[s] = NULL;
            if (j->f->cols[s] > 0 && j->v[s]) {
                eqnn__poly_pack(p, s, t, e, j->v[s], value + (size_t)s * piece);
                in[s] = value + (size_t)s * piece;
            }
            if (j->t && j->f->cols[s] > 0 && j->t[s])
                eqnn__poly_pack(p, s, t, e, j->t[s], tangent + (size_t)s * piece);
        }
        for (int s = 0; s < p->slots; s++) {
            if (!(j->want >> s & 1)) continue;
            memset(out, 0, (size_t)p->used[s] * 16 * sizeof(eqnn_real));
            if (!j->t) j->loops->poly(p, s, in, out);
            for (int a = 0; a < p->slots && j->t; a++) {
                if (a == s || !j->t[a] || j->f->cols[a] <= 0) continue;
                const eqnn_real *kept = in[a];
                in[a] = tangent + (size_t)a * piece;
                j->loops->poly(p, s, in, out);
                in[a] = kept;
            }
            for (int l = 0; l < 16 && e + l < t->n; l++) {
                eqnn_real *row = t->sink[s] + t->to[s][e + l];
                for (int c = 0; c < p->used[s]; c++) row[p->column[s][c]] += out[c * 16 + l];
            }
        }
    }
}

/* ---- mix and copy ---- */

static void eqnn__triple_item(const eqnn__job *j, const eqnn_real *const v[],
                              eqnn_real *const d[])
{
    if (j->f->kind == EQNN__MIX) j->loops->mix(j->f, v, d);
    else j->loops->copy(j->f, v, d);
}

static void eqnn__triple_tile(const eqnn__job *j, eqnn__tile *t)
{
    for (int e = 0; e < t->n; e++) {
        const eqnn_real *v[3];
        eqnn_real *d[3];
        for (int s = 0; s < 3; s++) {
            v[s] = j->v[s] ? j->v[s] + t->at[s][e] : NULL;
            d[s] = j->want >> s & 1 ? t->sink[s] + t->to[s][e] : NULL;
        }
        if (!j->t) eqnn__triple_item(j, v, d);
        for (int a = 0; a < 3 && j->t; a++) {
            if (!j->t[a]) continue;
            const eqnn_real *value = v[a];
            eqnn_real *out = d[a];
            v[a] = j->t[a] + t->at[a][e], d[a] = NULL;
            eqnn__triple_item(j, v, d);
            v[a] = value, d[a] = out;
        }
    }
}

/* A block where every row has weights of its own: a small product a row. */
static void eqnn__mix_rows(eqnn__device *d, const eqnn__form *f, const eqnn__mix_block *m, int slot,
                           const eqnn_real *const v[], eqnn_real *out, double beta)
{
    size_t U = (size_t)m->U, V = (size_t)m->V, xs = (size_t)m->xs, gs = (size_t)m->gs;
    size_t x = (size_t)m->x, w = (size_t)m->w, g = (size_t)m->g, D = (size_t)m->d;
    size_t rx = (size_t)f->cols[0], rw = (size_t)f->cols[1], rg = (size_t)f->cols[2];
    size_t n = (size_t)f->items;
    if (slot == 0)
        eqnn__cpu_gemm(d, 0, 1, D, U, V, m->scale, v[2] + g, gs, rg, v[1] + w, V, rw, beta, out + x,
                       xs, rx, n);
    else if (slot == 1)
        eqnn__cpu_gemm(d, 1, 0, U, V, D, m->scale, v[0] + x, xs, rx, v[2] + g, gs, rg, beta,
                       out + w, V, rw, n);
    else
        eqnn__cpu_gemm(d, 0, 0, D, V, U, m->scale, v[0] + x, xs, rx, v[1] + w, V, rw, beta, out + g,
                       gs, rg, n);
}

/* mix with every row its own and weights that all share: matrix products over all rows at once */
static void eqnn__mix_products(eqnn__device *d, const eqnn__form *f, int slot,
                               const eqnn_real *const v[], eqnn_real *out, int add)
{
    const eqnn__mix_plan_t *p = (const eqnn__mix_plan_t *)f->plan;
    size_t ldx = (size_t)f->cols[0], ldg = (size_t)f->cols[2], n = (size_t)f->items;
    if (!add && (p->covered[slot] != f->cols[slot] || !n))
        memset(out, 0, (size_t)f->rows[slot] * (size_t)f->cols[slot] * sizeof(eqnn_real));
    for (int b = 0; b < p->blocks && n; b++) {
        const eqnn__mix_block *m = p->block + b;
        size_t U = (size_t)m->U, V = (size_t)m->V, xs = (size_t)m->xs, gs = (size_t)m->gs;
        size_t x = (size_t)m->x, w = (size_t)m->w, g = (size_t)m->g, batch = (size_t)m->d;
        double beta = add || !p->fresh[b * 3 + slot];
        if (f->map[1] == EQNN__EACH) {
            eqnn__mix_rows(d, f, m, slot, v, out, beta);
            continue;
        }
        if (slot == 0)
            eqnn__cpu_gemm(d, 0, 1, n, U, V, m->scale, v[2] + g, ldg, gs, v[1] + w, V, 0, beta,
                          out + x, ldx, xs, batch);
        else if (slot == 1)
            eqnn__cpu_gemm(d, 1, 0, U, V, n, m->scale, v[0] + x, ldx, xs, v[2] + g, ldg, gs, beta,
                          out + w, V, 0, batch);
        else
            eqnn__cpu_gemm(d, 0, 0, n, V, U, m->scale, v[0] + x, ldx, xs, v[1] + w, V, 0, beta,
                          out + g, ldg, gs, batch);
    }
}

static void eqnn__mix_all(eqnn__device *d, const eqnn__form *f, const eqnn_real *const v[],
                          const eqnn_real *const t[], eqnn_real *const out[])
{
    for (int s = 0; s < 3; s++) {
        int add = 0;
        if (!out[s]) continue;
        if (!t) eqnn__mix_products(d, f, s, v, out[s], 0);
        for (int a = 0; a < 3 && t; a++) {
            if (a == s || !t[a]) continue;
            const eqnn_real *u[3] = { v[0], v[1], v[2] };
            u[a] = t[a];
            eqnn__mix_products(d, f, s, u, out[s], add++);
        }
        if (t && !add)
            memset(out[s], 0, (size_t)f->rows[s] * (size_t)f->cols[s] * sizeof(eqnn_real));
    }
}

/* ---- jobs: parts, tiles, folds ---- */

/* Where the items' rows of a slot begin, in its array and in its sink; rows of their own are
   zeroed. */
static void eqnn__form_offsets(const eqnn__job *j, eqnn__tile *t, int s)
{
    const eqnn__form *f = j->f;
    const int *item = t->item, map = f->map[s];
    const int *row = map == EQNN__SOURCE ? f->graph->source
                   : map == EQNN__TARGET ? f->graph->target
                   : map == EQNN__PAIR   ? f->graph->pair : NULL;
    size_t cols = (size_t)f->cols[s], step = map == EQNN__ONE ? 0 : cols;
    int how = j->how[s];
    if (step == 0) memset(t->at[s], 0, (size_t)t->n * sizeof *t->at[s]);
    else
        for (int e = 0; e < t->n; e++) t->at[s][e] = (size_t)(row ? row[item[e]] : item[e]) * step;
    if (how == EQNN__UNWANTED) return;
    if (how == EQNN__OWNED) memcpy(t->to[s], t->at[s], (size_t)t->n * sizeof *t->to[s]);
    else if (how == EQNN__BY_PART) memset(t->to[s], 0, (size_t)t->n * sizeof *t->to[s]);
    else
        for (int e = 0; e < t->n; e++) t->to[s][e] = (size_t)item[e] * cols;
    if (how == EQNN__BY_ITEM || (how == EQNN__OWNED && f->map[s] == EQNN__EACH))
        for (int e = 0; e < t->n; e++)
            memset(t->sink[s] + t->to[s][e], 0, cols * sizeof(eqnn_real));
}

static void eqnn__form_tile(const eqnn__job *j, eqnn__tile *t, eqnn__couple_work *k,
                            char *memory)
{
    const eqnn__form *f = j->f;
    if (!t->n) return;
    for (int s = 0; s < f->slots; s++) eqnn__form_offsets(j, t, s);
    if (f->kind == EQNN__COUPLE) eqnn__couple_tile(k);
    else if (f->kind == EQNN__POLY) eqnn__poly_tile(j, t, memory);
    else eqnn__triple_tile(j, t);
    t->n = t->rows = 0;
}

/* Adds an item with its own row of weights, or with the row all share (or need not). */
static void eqnn__form_item(const eqnn__job *j, eqnn__tile *t, int item)
{
    int one = j->f->kind == EQNN__COUPLE && (j->f->map[2] == EQNN__ONE || j->f->cols[2] <= 0);
    t->item[t->n] = item;
    t->local[t->n++] = one ? 0 : t->rows;
    if (one && t->rows) return;
    t->weight_row[t->rows++] = j->f->kind == EQNN__COUPLE ? eqnn__form_row(j->f, 2, item) : item;
}

static void eqnn__form_zero(const eqnn__job *j, int map, int from, int to)
{
    for (int s = 0; s < j->f->slots; s++)
        if (j->how[s] == EQNN__OWNED && j->f->map[s] == map && to > from)
            memset(j->out[s] + (size_t)from * (size_t)j->f->cols[s], 0,
                   (size_t)(to - from) * (size_t)j->f->cols[s] * sizeof(eqnn_real));
}

/* Items one after the other, in the order of the owners a..b-1; rows are zeroed when they come
   near. */
static void eqnn__form_run(const eqnn__job *j, eqnn__tile *t, eqnn__couple_work *k,
                           char *memory, int a, int b)
{
    const eqnn_graph *g = j->f->graph;
    const int *first = j->order == EQNN__TARGETS ? g->first
                     : j->order == EQNN__SOURCES ? g->first_by_source : NULL;
    int map = j->order == EQNN__TARGETS ? EQNN__TARGET : EQNN__SOURCE;
    int owner = a, begin = first ? first[a] : a, end = first ? first[b] : b;
    for (int i = begin; i < end; i++) {
        int next = owner;
        while (first && next < b && first[next] <= i) next++;
        eqnn__form_zero(j, map, owner, next);
        owner = next;
        eqnn__form_item(j, t, j->order == EQNN__SOURCES ? g->by_source[i] : i);
        if (t->rows == EQNN__TILE_ROWS || t->n == EQNN__TILE) eqnn__form_tile(j, t, k, memory);
    }
    eqnn__form_tile(j, t, k, memory);
    if (first) eqnn__form_zero(j, map, owner, b);
}

/* A closed block: the items of EQNN__TILE_ROWS pairs at a time, so that both directions of a pair
   share one row of weights. Without pairs simply all items. */
static void eqnn__form_block(const eqnn__job *j, eqnn__tile *t, eqnn__couple_work *k,
                             char *memory, int block)
{
    const eqnn_graph *g = j->f->graph;
    int node = g->block[block], end = g->block[block + 1], low = g->pairs, high = -1;
    int shared = j->f->kind == EQNN__COUPLE && j->f->map[2] == EQNN__PAIR && j->f->cols[2] > 0;
    int pairs = g->pair && (shared || eqnn__form_mapped(j->f, j->want, EQNN__PAIR));
    int by_source = !(j->want & 16) && (j->want & 1) && j->f->kind == EQNN__COUPLE;
    int from = by_source ? g->first_by_source[node] : g->first[node];
    int to = by_source ? g->first_by_source[end] : g->first[end];
    eqnn__form_zero(j, EQNN__TARGET, node, end);
    eqnn__form_zero(j, EQNN__SOURCE, node, end);
    for (int i = from; i < to && pairs; i++) {
        int pair = g->pair[by_source ? g->by_source[i] : i];
        eqnn__form_zero(j, EQNN__PAIR, pair, pair + 1);
        low = pair < low ? pair : low;
        high = pair > high ? pair : high;
    }
    if (!shared) low = high = 0;
    for (; low <= high; low += EQNN__TILE_ROWS) {
        int row[EQNN__TILE_ROWS];
        for (int r = 0; r < EQNN__TILE_ROWS; r++) row[r] = -1;
        for (int i = from; i < to; i++) {
            int item = by_source ? g->by_source[i] : i, r = shared ? g->pair[item] - low : 0;
            if (r < 0 || r >= EQNN__TILE_ROWS) continue;
            if (!shared || row[r] < 0) {
                row[r] = t->rows;
                eqnn__form_item(j, t, item);
            } else {
                t->item[t->n] = item;
                t->local[t->n++] = row[r];
            }
            if (t->n < EQNN__TILE && (shared || t->rows < EQNN__TILE_ROWS)) continue;
            eqnn__form_tile(j, t, k, memory);
            for (r = 0; r < EQNN__TILE_ROWS; r++) row[r] = -1;
        }
        eqnn__form_tile(j, t, k, memory);
    }
}

static void eqnn__form_walk(const void *job, size_t block, int thread)
{
    const eqnn__job *j = (const eqnn__job *)job;
    int part = (int)block;
    char *memory = j->work + j->work_size * (size_t)thread;
    eqnn__tile *t = (eqnn__tile *)(void *)memory;
    eqnn__couple_work *k = (eqnn__couple_work *)(void *)(memory + eqnn__lines(sizeof *t));
    int a, b;
    memory += eqnn__lines(sizeof *t) + eqnn__lines(sizeof *k);
    t->n = t->rows = 0;
    for (int s = 0; s < j->f->slots; s++) {
        size_t size = (size_t)j->f->rows[s] * (size_t)j->f->cols[s];
        t->sink[s] = j->how[s] == EQNN__OWNED ? j->out[s] : j->sink[s];
        if (j->how[s] != EQNN__BY_PART) continue;
        t->sink[s] += (size_t)part * size;
        memset(t->sink[s], 0, size * sizeof(eqnn_real));
    }
    eqnn__form_part(j, part, &a, &b);
    if (a == b) return;
    if (j->f->kind == EQNN__COUPLE) eqnn__couple_begin(k, j, t, memory);
    if (j->order != EQNN__BLOCKS) eqnn__form_run(j, t, k, memory, a, b);
    else
        for (; a < b; a++) eqnn__form_block(j, t, k, memory, a);
}

/* out = sum of the parts' rows, or of the items' rows by the map, in ascending order */
static void eqnn__form_fold(const eqnn__job *j, int slot)
{
    const eqnn__form *f = j->f;
    size_t size = (size_t)f->rows[slot] * (size_t)f->cols[slot], cols = (size_t)f->cols[slot];
    const eqnn_real *from = j->sink[slot];
    eqnn_real *out = j->out[slot];
    memset(out, 0, size * sizeof(eqnn_real));
    for (int p = 0; p < j->parts && j->how[slot] == EQNN__BY_PART; p++)
        j->loops->add(from + (size_t)p * size, out, size);
    for (int e = 0; e < f->items && j->how[slot] == EQNN__BY_ITEM; e++) {
        eqnn_real *row = out + (size_t)eqnn__form_row(f, slot, e) * cols;
        j->loops->add(from + (size_t)e * cols, row, cols);
    }
}

/* One pass over the items for the slots in want. */
static void eqnn__form_pass(eqnn__device *d, eqnn__job *j)
{
    const eqnn__form *f = j->f;
    char *scratch = (char *)d->scratch;
    j->parts = eqnn__form_parts(f, j->order, j->want);
    for (int s = 0; s < f->slots; s++) {
        size_t size = (size_t)f->cols[s];
        j->how[s] = j->want >> s & 1 ? eqnn__form_how(f, s, j->order) : EQNN__UNWANTED;
        j->sink[s] = (eqnn_real *)(void *)scratch;
        if (j->how[s] < EQNN__BY_ITEM) continue;
        size *=
            j->how[s] == EQNN__BY_ITEM ? (size_t)f->items : (size_t)f->rows[s] * (size_t)j->parts;
        scratch += eqnn__lines(size * sizeof(eqnn_real));
    }
    j->work = scratch;
    j->work_size = eqnn__form_work(f);
    eqnn__parallel(d, (size_t)j->parts, eqnn__form_walk, j);
    for (int s = 0; s < f->slots; s++)
        if (j->how[s] >= EQNN__BY_ITEM) eqnn__form_fold(j, s);
}

static void eqnn__cpu_form(eqnn__device *d, const eqnn__form *f, const eqnn_real *const v[],
                           const eqnn_real *const t[], eqnn_real *const out[])
{
    unsigned want = 0, now;
    for (int s = 0; s < f->slots; s++)
        if (out[s] && f->cols[s] > 0 && f->rows[s] > 0) want |= 1u << s;
    if (eqnn__mix_is_products(f)) {
        eqnn__mix_all(d, f, v, t, out);
        return;
    }
    for (; want; want &= ~now) {
        eqnn__job j;
        memset(&j, 0, sizeof j);
        j.loops = d->loops;
        j.f = f, j.v = v, j.t = t, j.out = out;
        j.order = eqnn__form_order(f, want, &now);
        j.want = now;
        eqnn__form_pass(d, &j);
    }
}

/* ---- solid harmonics ---- */

/* Blocks of some ten microseconds; with_factors: those of the gradients, in a table of the job. */
static void eqnn__solid_start(eqnn__solid_job *job, int lmax, size_t n, const eqnn_real *xyz,
                              int with_factors)
{
    size_t numbers = (size_t)(lmax + 1) * (size_t)(lmax + 1) * (with_factors ? 3 : 1);
    double f[3];
    job->lmax = lmax;
    job->n = n;
    job->block = (65536 / numbers / 16 + 1) * 16;
    job->xyz = xyz;
    job->g = NULL;
    job->factors = NULL;
    job->J = NULL;
    if (!with_factors || lmax > EQNN__SOLID_LMAX) return;
    for (int l = 1; l <= lmax; l++)
        for (int m = 0; m <= l; m++) {
            eqnn__solid_factors(l, m, f);
            for (int k = 0; k < 3; k++)
                job->table[3 * (l * (l + 1) / 2 + m) + k] = (eqnn_real)f[k];
        }
    job->factors = job->table;
}

static void eqnn__cpu_solid(eqnn__device *d, int lmax, size_t n, const eqnn_real *xyz, eqnn_real *Y,
                            eqnn_real *jacobian)
{
    eqnn__solid_job job;
    eqnn__solid_start(&job, lmax, n, xyz, lmax > 6 || jacobian);
    job.Y = Y;
    job.J = jacobian;
    if (lmax > EQNN__SOLID_LMAX)
        eqnn__parallel(d, n, d->loops->solid_plain, &job);
    else
        eqnn__parallel(d, (n + job.block - 1) / job.block, d->loops->solid, &job);
}

/* dxyz = sum over components of g[n][(lmax+1)^2] dY/dxyz, harmonics and gradients made anew. For
   1 <= lmax <= EQNN__SOLID_LMAX. */
static void eqnn__cpu_solid_vjp(eqnn__device *d, int lmax, size_t n, const eqnn_real *xyz,
                                const eqnn_real *g, eqnn_real *dxyz)
{
    eqnn__solid_job job;
    eqnn__solid_start(&job, lmax, n, xyz, 1);
    job.g = g;
    job.Y = dxyz;
    eqnn__parallel(d, (n + job.block - 1) / job.block, d->loops->solid_vjp, &job);
}

/* ---- the table ---- */

static const eqnn__kernels eqnn__cpu = {
    eqnn__cpu_map,       eqnn__cpu_random,        eqnn__cpu_check,     eqnn__cpu_fold_rows,
    eqnn__cpu_fold_cols, eqnn__cpu_fold_segments, eqnn__cpu_total,     eqnn__cpu_softmax,
    eqnn__cpu_take_rows, eqnn__cpu_copy2d,        eqnn__cpu_transpose, eqnn__cpu_take_cols,
    eqnn__cpu_add_cols,  eqnn__cpu_gemm,          eqnn__cpu_form,      eqnn__cpu_solid,
    eqnn__cpu_solid_vjp, eqnn__cpu_update};

/* lanes: at most so many floats a vector; 0: what the processor has. */
static void eqnn__device_begin(eqnn_ctx *c, int lanes)
{
    c->k = &eqnn__cpu;
    c->device.loops = eqnn__loops_pick(lanes);
}

/* ---- plans of the forms, made on the host
   ------------------------------------------------------ */

static int eqnn__couple_same(const eqnn__couple_path *a, const eqnn__couple_path *b)
{
    size_t n = (size_t)a->d1 * (size_t)a->d2 * (size_t)a->d3 * sizeof(double);
    return a->d1 == b->d1 && a->d2 == b->d2 && a->d3 == b->d3 && a->y == b->y && a->ys == b->ys &&
           !(a->scale < b->scale) && !(a->scale > b->scale) && !memcmp(a->C, b->C, n);
}

/* C[i][j][k] = 0 off the diagonal i = k: coupling with a scalar. */
static int eqnn__couple_diagonal(const eqnn__couple_path *p)
{
    if (p->d1 != p->d3) return 0;
    for (int i = 0; i < p->d1; i++)
        for (int j = 0; j < p->d2; j++)
            for (int k = 0; k < p->d3; k++) {
                double c = p->C[(i * p->d2 + j) * p->d3 + k];
                if (i != k && (c < 0 || c > 0)) return 0;
            }
    return 1;
}

/* Numbers sorted by a key: insertion for lists that are nearly in order, stable. */
static void eqnn__couple_sort(const eqnn__couple_path *paths, int n, int *order)
{
    for (int i = 0; i < n; i++) {
        int k = i;
        for (; k > 0 && paths[order[k - 1]].w > paths[i].w; k--) order[k] = order[k - 1];
        order[k] = i;
    }
}

/* What eqnn__couple_fill writes while the entries are listed. */
typedef struct eqnn__couple_build {
    eqnn__couple_plan_t *plan;
    eqnn__step *path;
    int *first, *j, *column, columns, entries, records;
    eqnn_real *c;
    eqnn__span *block, *back;
    eqnn__group *group;
    int *back_entry, backs, groups, back_records;
    eqnn_real *back_c;
} eqnn__couple_build;

static int eqnn__couple_column(eqnn__couple_build *b, int y)
{
    for (int i = 0; i < b->columns; i++)
        if (b->column[i] == y) return i;
    b->column[b->columns] = y;
    return b->columns++;
}

/* The entries M[i][k] = scale sum_j C[i][j][k] y[j] of a path. */
static void eqnn__couple_entry_list(eqnn__couple_build *b, const eqnn__couple_path *p, int diagonal)
{
    for (int i = 0; i < p->d1; i++)
        for (int k = 0; k < p->d3; k++) {
            if (diagonal && i != k) continue;
            b->first[b->entries++] = b->records;
            for (int j = 0; j < p->d2; j++) {
                double c = p->scale * p->C[(i * p->d2 + j) * p->d3 + k];
                if (!(c < 0) && !(c > 0)) continue;
                b->j[b->records] = eqnn__couple_column(b, p->y + j * p->ys);
                b->c[b->records++] = (eqnn_real)c;
            }
            b->first[b->entries] = b->records;
        }
}

/* The same coefficients by column of y, for the adjoint. */
static void eqnn__couple_adjoint(eqnn__couple_build *b, const eqnn__couple_path *p, int diagonal)
{
    int start = b->groups;
    for (int j = 0; j < p->d2; j++) {
        eqnn__group *q = b->group + b->groups;
        q->column = eqnn__couple_column(b, p->y + j * p->ys);
        q->first = b->back_records;
        for (int i = 0, entry = 0; i < p->d1; i++)
            for (int k = 0; k < p->d3; k++) {
                double c = p->scale * p->C[(i * p->d2 + j) * p->d3 + k];
                if (diagonal && i != k) continue;
                entry++;
                if (!(c < 0) && !(c > 0)) continue;
                b->back_entry[b->back_records] = entry - 1;
                b->back_c[b->back_records++] = (eqnn_real)c;
            }
        q->count = b->back_records - q->first;
        b->groups += q->count > 0;
    }
    b->back[b->backs].first = start;
    b->back[b->backs++].count = b->groups - start;
}

/* A panel of the paths from i on whose weights lie within so many columns, and the entries it
   needs, listed from block spans on. */
static void eqnn__couple_panel(const eqnn__couple_plan_t *p, int i, int columns, eqnn__panel *q,
                               eqnn__span *block, int spans)
{
    int end = 0;
    q->path = i;
    q->start = -1;
    q->block = spans;
    for (; i < p->paths; i++) {
        const eqnn__step *s = p->path + i;
        int last = s->w < 0 ? 0 : s->w + (s->channels - 1) * s->ws + 1, seen = 0;
        if (q->start >= 0 && last - q->start > columns) break;
        if (s->w >= 0 && q->start < 0) q->start = s->w;
        end = last > end ? last : end;
        for (int b = q->block; b < spans; b++) seen |= block[b].first == s->m;
        if (seen) continue;
        block[spans].first = s->m;
        block[spans++].count = s->diagonal ? s->d1 : s->d1 * s->d3;
    }
    q->start = q->start < 0 ? 0 : q->start;
    q->width = end > q->start ? end - q->start : 0;
    q->paths = i - q->path;
    q->blocks = spans - q->block;
}

/* Cuts the sorted paths into panels; one more at the end has them all. */
static void eqnn__couple_panels(eqnn__couple_plan_t *p, eqnn__panel *panel, eqnn__span *block)
{
    eqnn__panel *q = panel;
    int i = 0, spans = 0;
    for (; i < p->paths; q++) {
        eqnn__couple_panel(p, i, EQNN__PANEL, q, block, spans);
        i += q->paths;
        spans += q->blocks;
        p->width = q->width > p->width ? q->width : p->width;
    }
    p->panels = (int)(q - panel);
    eqnn__couple_panel(p, 0, INT_MAX, q, block, spans);
}

static void eqnn__couple_fill(eqnn__couple_build *b, const eqnn__couple_path *paths, int n,
                              const int *order)
{
    for (int i = 0; i < n; i++) {
        const eqnn__couple_path *a = paths + order[i];
        eqnn__step *s = b->path + i;
        s->d1 = a->d1, s->d3 = a->d3, s->channels = a->channels;
        s->x = a->x, s->xs = a->xs, s->g = a->g, s->gs = a->gs, s->w = a->w, s->ws = a->ws;
        s->diagonal = eqnn__couple_diagonal(a);
        s->m = -1;
        for (int k = 0; k < i && s->m < 0; k++) {
            if (!eqnn__couple_same(paths + order[k], a)) continue;
            s->m = b->path[k].m;
            s->block = b->path[k].block;
        }
        if (s->m < 0) {
            s->m = b->entries;
            s->block = b->backs;
            eqnn__couple_entry_list(b, a, s->diagonal);
            eqnn__couple_adjoint(b, a, s->diagonal);
        }
        if (s->d1 * s->d3 > b->plan->most) b->plan->most = s->d1 * s->d3;
        b->plan->pieces += (s->channels + 15) / 16;
        if (s->channels > b->plan->channels) b->plan->channels = s->channels;
    }
}

static const void *eqnn__couple_plan(eqnn_ctx *c, const eqnn__couple_path *paths, int n)
{
    size_t entries = 1, records = 1, columns = 1, N = (size_t)(n > 0 ? n : 1);
    for (int i = 0; i < n; i++) {
        size_t pairs = (size_t)paths[i].d1 * (size_t)paths[i].d3;
        entries += pairs;
        records += pairs * (size_t)paths[i].d2;
        columns += (size_t)paths[i].d2;
    }
    eqnn__couple_plan_t *p = (eqnn__couple_plan_t *)eqnn__keep_alloc(c, sizeof *p);
    eqnn__panel *panel = (eqnn__panel *)eqnn__keep_alloc(c, (N + 1) * sizeof *panel);
    int *order = (int *)eqnn__keep_alloc(c, N * sizeof *order);
    eqnn__couple_build b;
    memset(&b, 0, sizeof b);
    b.plan = p;
    b.path = (eqnn__step *)eqnn__keep_alloc(c, N * sizeof *b.path);
    b.block = (eqnn__span *)eqnn__keep_alloc(c, 2 * N * sizeof *b.block);
    b.first = (int *)eqnn__keep_alloc(c, entries * sizeof *b.first);
    b.column = (int *)eqnn__keep_alloc(c, columns * sizeof *b.column);
    b.j = (int *)eqnn__keep_alloc(c, records * sizeof *b.j);
    b.c = (eqnn_real *)eqnn__keep_alloc(c, records * sizeof *b.c);
    b.back = (eqnn__span *)eqnn__keep_alloc(c, N * sizeof *b.back);
    b.group = (eqnn__group *)eqnn__keep_alloc(c, columns * sizeof *b.group);
    b.back_entry = (int *)eqnn__keep_alloc(c, records * sizeof *b.back_entry);
    b.back_c = (eqnn_real *)eqnn__keep_alloc(c, records * sizeof *b.back_c);
    if (!p || !panel || !order || !b.path || !b.block || !b.first || !b.column || !b.j || !b.c ||
        !b.back || !b.group || !b.back_entry || !b.back_c)
        return NULL;
    eqnn__couple_sort(paths, n, order);
    eqnn__couple_fill(&b, paths, n, order);
    p->paths = n, p->entries = b.entries, p->columns = b.columns;
    p->path = b.path, p->first = b.first, p->j = b.j, p->column = b.column, p->c = b.c;
    p->panel = panel, p->block = b.block, p->back = b.back, p->group = b.group;
    p->back_entry = b.back_entry, p->back_c = b.back_c;
    eqnn__couple_panels(p, panel, b.block);
    return p;
}

/* Marks the columns of a block in seen; 1 when none was marked before. */
static int eqnn__mix_mark(char *seen, int first, int stride, int d, int width)
{
    int fresh = 1;
    for (int i = 0; i < d; i++)
        for (int u = 0; u < width; u++) {
            char *s = seen + (size_t)first + (size_t)i * (size_t)stride + (size_t)u;
            fresh &= !*s;
            *s = 1;
        }
    return fresh;
}

static void eqnn__mix_blocks(eqnn__mix_plan_t *p, char *fresh, char *const seen[3],
                             const size_t size[3])
{
    for (int i = 0; i < p->blocks; i++) {
        const eqnn__mix_block *m = p->block + i;
        fresh[3 * i] = (char)eqnn__mix_mark(seen[0], m->x, m->xs, m->d, m->U);
        fresh[3 * i + 1] = (char)eqnn__mix_mark(seen[1], m->w, 0, 1, m->U * m->V);
        fresh[3 * i + 2] = (char)eqnn__mix_mark(seen[2], m->g, m->gs, m->d, m->V);
    }
    for (int s = 0; s < 3; s++)
        for (size_t k = 0; k < size[s]; k++) p->covered[s] += seen[s][k];
    p->fresh = fresh;
}

static const void *eqnn__mix_plan(eqnn_ctx *c, const eqnn__mix_block *blocks, int n)
{
    size_t size[3] = { 1, 1, 1 }, N = (size_t)(n > 0 ? n : 1), end;
    char *seen[3];
    for (int i = 0; i < n; i++) {
        const eqnn__mix_block *m = blocks + i;
        end = (size_t)m->x + (size_t)(m->d - 1) * (size_t)m->xs + (size_t)m->U;
        size[0] = end > size[0] ? end : size[0];
        end = (size_t)m->w + (size_t)m->U * (size_t)m->V;
        size[1] = end > size[1] ? end : size[1];
        end = (size_t)m->g + (size_t)(m->d - 1) * (size_t)m->gs + (size_t)m->V;
        size[2] = end > size[2] ? end : size[2];
    }
    eqnn__mix_plan_t *p = (eqnn__mix_plan_t *)eqnn__keep_alloc(c, sizeof *p);
    eqnn__mix_block *block = (eqnn__mix_block *)eqnn__keep_alloc(c, N * sizeof *block);
    char *fresh = (char *)eqnn__keep_alloc(c, 3 * N);
    if (!p || !block || !fresh) return NULL;
    if (n > 0) memcpy(block, blocks, N * sizeof *block);
    p->blocks = n;
    p->block = block;
    for (int s = 0; s < 3; s++) seen[s] = (char *)eqnn__heap(c, NULL, 0, size[s]);
    if (seen[0] && seen[1] && seen[2]) {
        for (int s = 0; s < 3; s++) memset(seen[s], 0, size[s]);
        eqnn__mix_blocks(p, fresh, seen, size);
    }
    for (int s = 0; s < 3; s++)
        if (seen[s]) eqnn__heap(c, seen[s], size[s], 0);
        else p = NULL;
    return p;
}

static const void *eqnn__poly_plan(eqnn_ctx *c, int slots, const eqnn__poly_record *records, int n)
{
    size_t N = (size_t)(n > 0 ? n : 1), S = (size_t)slots;
    eqnn__poly_plan_t *p = (eqnn__poly_plan_t *)eqnn__keep_alloc(c, sizeof *p);
    int *col = (int *)eqnn__keep_alloc(c, N * S * sizeof *col);
    eqnn_real *k = (eqnn_real *)eqnn__keep_alloc(c, N * sizeof *k);
    if (!p || !col || !k) return NULL;
    for (int s = 0; s < slots; s++) {
        int most = 0;
        for (int r = 0; r < n; r++) most = records[r].col[s] > most ? records[r].col[s] : most;
        int *column = (int *)eqnn__keep_alloc(c, ((size_t)most + 1) * sizeof *column);
        int *place = (int *)eqnn__heap(c, NULL, 0, ((size_t)most + 1) * sizeof *place);
        if (!column || !place) return NULL;
        for (int i = 0; i <= most; i++) place[i] = -1;
        for (int r = 0; r < n; r++) {
            int at = records[r].col[s] < 0 ? 0 : records[r].col[s];
            if (place[at] < 0) {
                place[at] = p->used[s];
                column[p->used[s]++] = at;
            }
            col[(size_t)r * S + (size_t)s] = place[at];
        }
        eqnn__heap(c, place, ((size_t)most + 1) * sizeof *place, 0);
        p->column[s] = column;
        p->widest = p->used[s] > p->widest ? p->used[s] : p->widest;
    }
    for (int r = 0; r < n; r++) k[r] = (eqnn_real)records[r].c;
    p->slots = slots, p->records = n, p->col = col, p->c = k;
    return p;
}

static const void *eqnn__copy_plan(eqnn_ctx *c, const int *map, int cols, int cols_b)
{
    size_t N = (size_t)(cols > 0 ? cols : 1);
    eqnn__copy_plan_t *p = (eqnn__copy_plan_t *)eqnn__keep_alloc(c, sizeof *p);
    eqnn__copy_run *run = (eqnn__copy_run *)eqnn__keep_alloc(c, N * sizeof *run);
    (void)cols_b;
    if (!p || !run) return NULL;
    for (int i = 0; i < cols; p->runs++) {
        eqnn__copy_run *r = run + p->runs;
        int k = i + 1;
        r->step = k < cols && map[k] == map[i] ? 0 : 1;
        while (k < cols && map[k] == map[k - 1] + r->step) k++;
        r->first = i, r->count = k - i, r->b = map[i];
        i = k;
    }
    p->run = run;
    return p;
}

/* Working memory of the kernel `form`: per thread, and for sums that are folded afterwards. */
static size_t eqnn__form_scratch(const eqnn__form *f, unsigned want, int tangents, int threads)
{
    size_t most = 0;
    unsigned now;
    (void)tangents;
    if (eqnn__mix_is_products(f)) return eqnn__mix_scratch(f, threads);
    for (; want; want &= ~now) {
        int order = eqnn__form_order(f, want, &now);
        size_t parts = (size_t)eqnn__form_parts(f, order, now), n = 64;
        for (int s = 0; s < f->slots; s++) {
            int how = now >> s & 1 ? eqnn__form_how(f, s, order) : EQNN__UNWANTED;
            size_t rows = how == EQNN__BY_ITEM ? (size_t)f->items : (size_t)f->rows[s] * parts;
            if (how >= EQNN__BY_ITEM)
                n += eqnn__lines(rows * (size_t)f->cols[s] * sizeof(eqnn_real));
        }
        n += eqnn__form_work(f) * (size_t)(threads > 0 ? threads : 1);
        most = n > most ? n : most;
    }
    return most;
}

/* ----------------------------------------------------------------------------------------------
   5 >>tape
   ---------------------------------------------------------------------------------------------- */

/* The operations that have a rule; all others are composed of them. */
enum {
    EQNN__OP_MAP = 1,
    EQNN__OP_AXPBY,
    EQNN__OP_SCALE,
    EQNN__OP_MUL,
    EQNN__OP_DIV,
    EQNN__OP_ATAN2,
    EQNN__OP_WHERE,
    EQNN__OP_MATMUL,
    EQNN__OP_TRANSPOSE,
    EQNN__OP_VIEW,
    EQNN__OP_STRETCH,
    EQNN__OP_SUM_ROWS,
    EQNN__OP_SUM_COLS,
    EQNN__OP_TAKE,
    EQNN__OP_COLLECT,
    EQNN__OP_COLUMNS,
    EQNN__OP_COLLECT_COLUMNS,
    EQNN__OP_SOFTMAX,
    EQNN__OP_SEGMENT_SOFTMAX,
    EQNN__OP_CONCAT,
    EQNN__OP_SLICE,
    EQNN__OP_PAD,
    EQNN__OP_STACK,
    EQNN__OP_SLICE_ROWS,
    EQNN__OP_PAD_ROWS,
    EQNN__OP_FORM,
    EQNN__OP_NORM,
    EQNN__OP_SOLID,
    EQNN__OP_CUSTOM,
    EQNN__OP_CHECKPOINT
};

static void eqnn__weight_gradient_add(eqnn_tensor *w, eqnn_tensor *g);
static int eqnn__weight_trainable(const eqnn_tensor *w);
static void eqnn__form_rule(eqnn__sweep *s, const eqnn__node *n);
static void eqnn__solid_rule(eqnn__sweep *s, const eqnn__node *n);
static eqnn_tensor *eqnn__map(eqnn_tensor *x, int f, double p, int order, eqnn_tensor *times);
static eqnn_tensor *eqnn__un(eqnn_tensor *g, const eqnn_tensor *like);
static eqnn_tensor *eqnn__pad(eqnn_tensor *x, int first, int cols);
static eqnn_tensor *eqnn__pad_rows(eqnn_tensor *x, int first, int rows);

/* --- recording --- */

static size_t eqnn__index(const eqnn_tensor *x)
{
    return x->node->index;
}

static int eqnn__reaches(const eqnn_tensor *x)
{
    return x->weight ? eqnn__weight_trainable(x) : x->node && x->node->reaches;
}

/* While a checkpointed block runs: the parameters it touches become inputs of its node. */
static void eqnn__touch(eqnn_ctx *c, eqnn_tensor *w)
{
    for (int i = c->note_start; i < c->notes; i++)
        if (c->noted[i] == w) return;
    if (c->notes == c->note_room) {
        int room = c->note_room ? 2 * c->note_room : 64;
        void *p = eqnn__heap(c, c->noted, (size_t)c->note_room * sizeof(void *),
                             (size_t)room * sizeof(void *));
        if (!p) return;
        c->noted = (eqnn_tensor **)p;
        c->note_room = room;
    }
    c->noted[c->notes++] = w;
}

/* Room for the lists of inputs and outputs: in the node itself when they are few. */
static int eqnn__node_lists(eqnn_ctx *c, eqnn__node *n)
{
    n->in = n->few;
    if (n->n_in + n->n_out > 4)
        n->in = (eqnn_tensor **)eqnn__arena_alloc(c, &c->step,
                                                  (size_t)(n->n_in + n->n_out) * sizeof(void *));
    if (n->in) n->out = n->in + n->n_in;
    return n->in != NULL;
}

/* A node behind the last. NULL when nothing is recorded. The caller fills aux, i and p. */
static eqnn__node *eqnn__record(eqnn_ctx *c, int op, eqnn_tensor *const *in, int n_in,
                                eqnn_tensor *const *out, int n_out)
{
    for (int i = 0; c->noting && i < n_in; i++)
        if (in[i]->weight) eqnn__touch(c, in[i]);
    if (!c->recording || c->failed) return NULL;
    eqnn__node *n = (eqnn__node *)eqnn__pool_next(c, &c->node);
    if (!n) return NULL;
    n->op = op;
    n->n_in = n_in;
    n->n_out = n_out;
    n->aux = NULL;
    n->index = c->node.count - 1;
    n->slot = c->slots;
    n->reaches = 0;
    if (!eqnn__node_lists(c, n)) {
        c->node.count--;
        return NULL;
    }
    for (int i = 0; i < n_in; i++) {
        n->in[i] = in[i];
        n->reaches |= eqnn__reaches(in[i]);
    }
    for (int i = 0; i < n_out; i++) {
        n->out[i] = out[i];
        if (!out[i]) continue;
        out[i]->node = n;
        out[i]->out = i;
    }
    c->slots += (size_t)n_out;
    return n;
}

/* --- sweeps: from y back to what is wanted --- */

struct eqnn__sweep {
    eqnn_ctx *c;
    int backward;            /* unrecorded, also sums into the parameters' gradients     */
    size_t lo, hi, slot_lo;  /* nodes of the tape that lie between                       */
    eqnn_tensor **cot;       /* cotangents of their outputs                              */
    unsigned char *dep;      /* does node lo + k depend on a wanted tensor?              */
    eqnn_tensor *const *x;   /* wanted                                                   */
    eqnn_tensor **dx;
    int n;
};

static eqnn_tensor *eqnn__owner(eqnn_tensor *x)
{
    while (x->base) x = x->base;
    return x;
}

static eqnn__node *eqnn__node_at(const eqnn_ctx *c, size_t i)
{
    return (eqnn__node *)eqnn__pool_at(&c->node, i);
}

static eqnn_tensor *eqnn__cotangent(eqnn__sweep *s, const eqnn__node *n, int output)
{
    return s->cot[n->slot - s->slot_lo + (size_t)output];
}

static int eqnn__inside(const eqnn__sweep *s, const eqnn_tensor *x)
{
    return x->node && x->node->index >= s->lo && x->node->index <= s->hi;
}

/* Does the sweep need the cotangent of this tensor? */
static int eqnn__wanted(const eqnn__sweep *s, const eqnn_tensor *x)
{
    if (x->target) return 1;
    if (s->backward && eqnn__reaches(x)) return 1;
    return eqnn__inside(s, x) && s->dep[x->node->index - s->lo];
}

static int eqnn__wants(eqnn__sweep *s, const eqnn__node *n, int input)
{
    return eqnn__wanted(s, n->in[input]);
}

static void eqnn__release(eqnn__sweep *s, eqnn_tensor *g)
{
    if (!g) return;
    eqnn_tensor *o = eqnn__owner(g);
    if (--o->refs > 0 || !s->backward || !o->recyclable) return;
    o->recyclable = 0;
    eqnn__recycle(s->c, o->data, eqnn__count(o) * sizeof(eqnn_real) + sizeof(eqnn_real));
}

/* *sum += g; in place where nobody else looks */
static void eqnn__accumulate(eqnn__sweep *s, eqnn_tensor **sum, eqnn_tensor *g)
{
    eqnn_ctx *c = s->c;
    eqnn_tensor *old = *sum;
    if (old && s->backward && old->recyclable && old->refs == 1 && !old->base) {
        c->k->copy2d(&c->device, (size_t)g->rows, (size_t)g->cols, g->data, (size_t)g->cols,
                     old->data, (size_t)g->cols, 1);
        return;
    }
    if (old) g = eqnn_add(old, g);
    if (!g) return;
    eqnn__owner(g)->refs++;
    *sum = g;
    eqnn__release(s, old);
}

static void eqnn__give(eqnn__sweep *s, const eqnn__node *n, int input, eqnn_tensor *g)
{
    eqnn_tensor *x = n->in[input];
    if (!g || s->c->failed || !eqnn__wanted(s, x)) return;
    if (g->rows != x->rows || g->cols != x->cols) {
        eqnn__fail(s->c, "a rule (operation %d, input %d) gave [%d,%d] for [%d,%d]", n->op, input,
                   g->rows, g->cols, x->rows, x->cols);
        return;
    }
    if (s->backward && x->weight) eqnn__weight_gradient_add(x, g);
    if (eqnn__inside(s, x))
        eqnn__accumulate(s, &s->cot[x->node->slot + (size_t)x->out - s->slot_lo], g);
    else if (x->target)
        eqnn__accumulate(s, &s->dx[x->target - 1], g);
}

static void eqnn__rule(eqnn__sweep *s, const eqnn__node *n);

/* Runs one node's rule, then gives back what nobody holds. */
static void eqnn__visit(eqnn__sweep *s, const eqnn__node *n)
{
    eqnn_ctx *c = s->c;
    eqnn__pool *headers = &c->header[c->side];
    size_t first = headers->count;
    int arrived = 0;
    for (int i = 0; i < n->n_out; i++) arrived |= eqnn__cotangent(s, n, i) != NULL;
    if (!arrived) return;
    c->in_rule++;
    eqnn__rule(s, n);
    c->in_rule--;
    if (!s->backward) return;
    for (size_t i = first; i < headers->count; i++) {
        eqnn_tensor *t = (eqnn_tensor *)eqnn__pool_at(headers, i);
        if (!t->recyclable || t->refs > 0) continue;
        t->recyclable = 0;
        eqnn__recycle(c, t->data, eqnn__count(t) * sizeof(eqnn_real) + sizeof(eqnn_real));
    }
    for (int i = 0; i < n->n_out; i++) {
        if (n->out[i] && n->out[i]->target) continue;
        eqnn__release(s, eqnn__cotangent(s, n, i));
        s->cot[n->slot - s->slot_lo + (size_t)i] = NULL;
    }
}

/* Which nodes between depend on what is wanted: one pass forward. */
static void eqnn__mark_dependent(eqnn__sweep *s)
{
    for (size_t k = s->lo; k <= s->hi; k++) {
        const eqnn__node *n = eqnn__node_at(s->c, k);
        unsigned char d = (unsigned char)(s->backward && n->reaches);
        for (int i = 0; i < n->n_in && !d; i++) {
            const eqnn_tensor *x = n->in[i];
            if (x->target || (x->node && x->node->index >= s->lo && s->dep[x->node->index - s->lo]))
                d = 1;
        }
        s->dep[k - s->lo] = d;
    }
}

/* The first node that can depend on x. */
static size_t eqnn__first_use(const eqnn_tensor *x)
{
    return x->node ? x->node->index : x->born;
}

/* Memory of the sweep: one cotangent an output, one byte a node. */
static int eqnn__sweep_start(eqnn__sweep *s, eqnn_tensor *y)
{
    eqnn_ctx *c = s->c;
    s->hi = eqnn__index(y);
    s->lo = s->backward ? 0 : s->hi;
    for (int i = 0; i < s->n; i++) {
        size_t first = eqnn__first_use(s->x[i]);
        if (first < s->lo) s->lo = first;
    }
    const eqnn__node *last = eqnn__node_at(c, s->hi);
    s->slot_lo = eqnn__node_at(c, s->lo)->slot;
    size_t slots = last->slot + (size_t)last->n_out - s->slot_lo;
    s->cot = (eqnn_tensor **)eqnn__arena_alloc(c, &c->step, slots * sizeof(void *));
    s->dep = (unsigned char *)eqnn__arena_alloc(c, &c->step, s->hi - s->lo + 1);
    if (!s->cot || !s->dep) return 0;
    memset(s->cot, 0, slots * sizeof(void *));
    return 1;
}

/* The sweep itself; dx[] gets what arrives at x[] (NULL: nothing). */
static void eqnn__sweep_run(eqnn__sweep *s, eqnn_tensor *y, eqnn_tensor *g)
{
    int old[8], many = s->n > 8;
    int *was = many ? (int *)eqnn__arena_alloc(s->c, &s->c->step, (size_t)s->n * sizeof(int)) : old;
    if (!was) return;
    for (int i = 0; i < s->n; i++) {
        was[i] = s->x[i]->target;
        s->x[i]->target = i + 1;
        s->dx[i] = NULL;
    }
    if (y->node && eqnn__sweep_start(s, y)) {
        eqnn__mark_dependent(s);
        eqnn__accumulate(s, &s->cot[y->node->slot + (size_t)y->out - s->slot_lo], g);
        for (size_t k = s->hi + 1; k-- > s->lo && !s->c->failed;)
            if (s->dep[k - s->lo]) eqnn__visit(s, eqnn__node_at(s->c, k));
        for (int i = 0; i < s->n; i++)
            if (eqnn__inside(s, s->x[i]))
                s->dx[i] = eqnn__cotangent(s, s->x[i]->node, s->x[i]->out);
    } else if (!y->node && y->target) {
        s->dx[y->target - 1] = g;
    }
    for (int i = s->n; i-- > 0;) s->x[i]->target = was[i];
}

/* The derivative has the label of what it is taken by: orthogonal matrices are their own duals. */
static int eqnn__grads_end(eqnn_ctx *c, eqnn_tensor *const *x, int n, eqnn_tensor **dx)
{
    for (int i = 0; i < n; i++) {
        if (!dx[i] && !c->failed) dx[i] = eqnn_zeros(c, x[i]->rows, x[i]->cols);
        if (!dx[i] || c->failed) break;
        if (x[i]->label && !c->in_rule) dx[i] = eqnn_as(dx[i], x[i]->label);
    }
    for (int i = 0; c->failed && i < n; i++) dx[i] = NULL;
    return !c->failed;
}

EQNN_API int eqnn_vjps(eqnn_tensor *y, eqnn_tensor *g, eqnn_tensor *const *x, int n,
                       eqnn_tensor **dx)
{
    for (int i = 0; i < n; i++) dx[i] = NULL;
    if (eqnn__bad2(y, g, "grad")) return 0;
    if (g->rows != y->rows || g->cols != y->cols) {
        eqnn__fail(y->ctx, "grad: the cotangent is [%d,%d], y is [%d,%d]", g->rows, g->cols,
                   y->rows, y->cols);
        return 0;
    }
    for (int i = 0; i < n; i++)
        if (eqnn__bad2(y, x[i], "grad")) return 0;
    eqnn__sweep s;
    memset(&s, 0, sizeof s);
    s.c = y->ctx;
    s.x = x;
    s.dx = dx;
    s.n = n;
    eqnn__sweep_run(&s, y, g);
    return eqnn__grads_end(y->ctx, x, n, dx);
}

static eqnn_tensor *eqnn__one(eqnn_tensor *y, const char *op)
{
    if (eqnn__bad(y, op)) return NULL;
    if (y->rows != 1 || y->cols != 1)
        return eqnn__fail(y->ctx, "%s: [%d,%d] is not one number; sum it, or use eqnn_vjp", op,
                          y->rows, y->cols);
    return eqnn_full(y->ctx, 1, 1, 1);
}

EQNN_API int eqnn_grads(eqnn_tensor *y, eqnn_tensor *const *x, int n, eqnn_tensor **dx)
{
    for (int i = 0; i < n; i++) dx[i] = NULL;
    eqnn_tensor *one = eqnn__one(y, "grad");
    return one ? eqnn_vjps(y, one, x, n, dx) : 0;
}

EQNN_API eqnn_tensor *eqnn_grad(eqnn_tensor *y, eqnn_tensor *x)
{
    eqnn_tensor *dx = NULL;
    eqnn_grads(y, &x, 1, &dx);
    return dx;
}

EQNN_API eqnn_tensor *eqnn_vjp(eqnn_tensor *y, eqnn_tensor *g, eqnn_tensor *x)
{
    eqnn_tensor *dx = NULL;
    eqnn_vjps(y, g, &x, 1, &dx);
    return dx;
}

/* An unrecorded sweep: parameters get their gradients, x[] (leaves) their cotangents in dx[],
   which are views of memory that the caller must copy before its mark. */
static void eqnn__backward(eqnn_tensor *y, eqnn_tensor *g, eqnn_tensor *const *x, int n,
                           eqnn_tensor **dx)
{
    eqnn_ctx *c = y->ctx;
    eqnn__recycler mine, *outer = c->recycler;
    eqnn__sweep s;
    int recording = eqnn_recording(c, 0);
    memset(&mine, 0, sizeof mine);
    memset(&s, 0, sizeof s);
    s.c = c;
    s.backward = 1;
    s.x = x;
    s.dx = dx;
    s.n = n;
    c->recycler = &mine;
    eqnn__sweep_run(&s, y, g);
    c->recycler = outer;
    eqnn_recording(c, recording);
}

EQNN_API int eqnn_backward(eqnn_tensor *y)
{
    eqnn_tensor *one = eqnn__one(y, "backward");
    if (!one) return 0;
    eqnn_ctx *c = y->ctx;
    if (!y->node) {
        eqnn__fail(c, "backward: y was not recorded: it is a constant, or recording was off");
        return 0;
    }
    eqnn_mark m = eqnn_mark_make(c);
    eqnn__backward(y, one, NULL, 0, NULL);
    eqnn_rewind(m, NULL);
    return !c->failed;
}

/* --- checkpoints --- */

typedef struct eqnn__scope {
    char text[512];
    uint64_t hash[33];
    int length[33], depth;
} eqnn__scope;

typedef struct eqnn__checkpoint {
    eqnn_function f;
    void *user;
    size_t user_size;
    int n;                /* arguments of f; the node's other inputs are parameters */
    int training;
    uint64_t tick;
    eqnn__scope scope;    /* so that a replay finds the same names                  */
    int vjp;              /* f(x) itself, or the cotangents of its inputs           */
} eqnn__checkpoint;

static void eqnn__scope_get(const eqnn_ctx *c, eqnn__scope *s)
{
    memcpy(s->text, c->scope, sizeof s->text);
    memcpy(s->hash, c->scope_hash, sizeof s->hash);
    memcpy(s->length, c->scope_length, sizeof s->length);
    s->depth = c->scope_depth;
}

static void eqnn__scope_set(eqnn_ctx *c, const eqnn__scope *s)
{
    memcpy(c->scope, s->text, sizeof s->text);
    memcpy(c->scope_hash, s->hash, sizeof s->hash);
    memcpy(c->scope_length, s->length, sizeof s->length);
    c->scope_depth = s->depth;
}

/* Arguments of a run: the same numbers as fresh leaves, so that it is a tape of its own. */
static int eqnn__leaves(eqnn_ctx *c, eqnn_tensor *const *x, int n, eqnn_tensor **leaf)
{
    for (int i = 0; i < n; i++) {
        leaf[i] = eqnn__header(c, x[i]->rows, x[i]->cols, x[i]->data);
        if (!leaf[i]) return 0;
        leaf[i]->label = x[i]->label;
    }
    return 1;
}

/* f again, under the names, tick and mode of the first time. */
static eqnn_tensor *eqnn__replay(eqnn_ctx *c, const eqnn__checkpoint *k, eqnn_tensor *const *x)
{
    eqnn__scope now;
    uint64_t tick = c->tick;
    int training = c->training, rule = c->in_rule;
    eqnn__scope_get(c, &now);
    eqnn__scope_set(c, &k->scope);
    c->tick = k->tick;
    c->training = k->training;
    c->in_rule = 0;
    c->own_tape++;
    eqnn_tensor *y = k->f(x, k->n, k->user);
    c->own_tape--;
    c->tick = tick;
    c->training = training;
    c->in_rule = rule;
    eqnn__scope_set(c, &now);
    if (!y && !c->failed) eqnn__fail(c, "checkpoint: the block returned NULL");
    return y;
}

/* What the rule of a checkpoint in a recorded sweep computes: all cotangents of the block k. */
typedef struct eqnn__checkpoint_user {
    eqnn__checkpoint *k;
    int weights;
    eqnn_tensor **weight;   /* parameters the block touches */
} eqnn__checkpoint_user;

/* The body of a checkpoint's rule as a block of its own: x = arguments and g; the result is the row
   of all cotangents, those of the arguments first, one after the other. */
static eqnn_tensor *eqnn__checkpoint_vjp(eqnn_tensor *const *x, int n, void *user)
{
    const eqnn__checkpoint_user *u = (const eqnn__checkpoint_user *)user;
    eqnn_ctx *c = x[0]->ctx;
    eqnn_tensor *row = NULL;
    int recording = eqnn_recording(c, 1), args = n - 1, all = args + u->weights;
    eqnn_tensor **list = (eqnn_tensor **)eqnn__arena_alloc(c, &c->step,
                                                           2 * (size_t)all * sizeof(void *));
    eqnn_tensor *y = list ? eqnn__replay(c, u->k, x) : NULL;
    if (y) {
        memcpy(list, x, (size_t)args * sizeof(void *));
        memcpy(list + args, u->weight, (size_t)u->weights * sizeof(void *));
        eqnn_tensor **dx = list + all;
        int ok = eqnn_vjps(eqnn_as(y, NULL), eqnn_as(x[args], NULL), list, all, dx);
        for (int i = 0; ok && i < all; i++)
            dx[i] = eqnn_reshape(eqnn_as(dx[i], NULL), 1, list[i]->rows * list[i]->cols);
        row = ok ? eqnn_concat_n(dx, all) : NULL;
    }
    eqnn_recording(c, recording);
    return row;
}

/* Runs the block on leaves, forgets all but its value, and leaves one node whose inputs are the
   arguments and the parameters that the block touched. */
static eqnn_tensor *eqnn__checkpoint_run(eqnn_ctx *c, eqnn__checkpoint *k, eqnn_tensor *const *x,
                                         int n)
{
    int recording = eqnn_recording(c, 0), noting = c->noting, start = c->note_start,
        first = c->notes;
    eqnn_mark m = eqnn_mark_make(c);
    m.updates = INT_MAX; /* what the first run files stays filed */
    eqnn_tensor **leaf = (eqnn_tensor **)eqnn__arena_alloc(c, &c->step, (size_t)n * sizeof(void *));
    c->noting = 1;
    c->note_start = first;
    c->own_tape++;
    eqnn_tensor *y = leaf && eqnn__leaves(c, x, n, leaf) ? k->f(leaf, n, k->user) : NULL;
    c->own_tape--;
    y = eqnn_rewind(m, y);
    c->noting = noting;
    c->note_start = start;
    eqnn_recording(c, recording);
    if (!y) return c->failed ? NULL : eqnn__fail(c, "checkpoint: the block returned NULL");
    int total = n + c->notes - first;
    eqnn_tensor **in = (eqnn_tensor **)eqnn__arena_alloc(c, &c->step,
                                                         (size_t)total * sizeof(void *));
    if (!in) return NULL;
    memcpy(in, x, (size_t)n * sizeof(void *));
    if (total > n) memcpy(in + n, c->noted + first, (size_t)(total - n) * sizeof(void *));
    if (!noting) c->notes = first;
    eqnn__node *node = eqnn__record(c, EQNN__OP_CHECKPOINT, in, total, &y, 1);
    if (node) node->aux = k;
    return y;
}

static eqnn__checkpoint *eqnn__checkpoint_make(eqnn_ctx *c, eqnn_function f, int n,
                                               const void *user, size_t size)
{
    eqnn__checkpoint *k = (eqnn__checkpoint *)eqnn__arena_alloc(c, &c->step, sizeof *k);
    void *copy = k ? eqnn__arena_alloc(c, &c->step, size) : NULL;
    if (!copy) return NULL;
    memset(k, 0, sizeof *k);
    if (user && size) memcpy(copy, user, size);
    k->f = f;
    k->user = copy;
    k->user_size = size;
    k->n = n;
    k->training = c->training;
    k->tick = c->tick;
    eqnn__scope_get(c, &k->scope);
    return k;
}

EQNN_API eqnn_tensor *eqnn_checkpoint(eqnn_function f, eqnn_tensor *const *x, int n,
                                      const void *user, size_t user_size)
{
    if (n < 1 || eqnn__bad(x[0], "checkpoint")) return NULL;
    for (int i = 1; i < n; i++)
        if (eqnn__bad2(x[0], x[i], "checkpoint")) return NULL;
    eqnn__checkpoint *k = eqnn__checkpoint_make(x[0]->ctx, f, n, user, user_size);
    return k ? eqnn__checkpoint_run(x[0]->ctx, k, x, n) : NULL;
}

/* In an unrecorded sweep: replay recorded, sweep, keep only the arguments' cotangents. */
static void eqnn__checkpoint_backward(eqnn__sweep *s, const eqnn__node *n, eqnn__checkpoint *k,
                                      eqnn_tensor *g)
{
    eqnn_ctx *c = s->c;
    size_t args = (size_t)k->n;
    eqnn_tensor **leaf = (eqnn_tensor **)eqnn__arena_alloc(c, &c->step, 3 * args * sizeof(void *));
    if (!leaf) return;
    eqnn_tensor **dx = leaf + args, **result = dx + args;
    for (int i = 0; i < k->n; i++)
        result[i] = eqnn__wants(s, n, i) ? eqnn__new(c, n->in[i]->rows, n->in[i]->cols) : NULL;
    eqnn__recycler *outer = c->recycler;
    c->recycler = NULL;
    eqnn_mark m = eqnn_mark_make(c);
    int recording = eqnn_recording(c, 1);
    eqnn_tensor *y = eqnn__leaves(c, n->in, k->n, leaf) ? eqnn__replay(c, k, leaf) : NULL;
    if (y) eqnn__backward(y, g, leaf, k->n, dx);
    for (int i = 0; y && i < k->n; i++) {
        if (!result[i]) continue;
        if (dx[i]) memcpy(result[i]->data, dx[i]->data, eqnn__count(dx[i]) * sizeof(eqnn_real));
        else memset(result[i]->data, 0, eqnn__count(result[i]) * sizeof(eqnn_real));
    }
    eqnn_recording(c, recording);
    eqnn_rewind(m, NULL);
    c->recycler = outer;
    for (int i = 0; i < k->n; i++) eqnn__give(s, n, i, result[i]);
}

/* In a recorded sweep the rule is a checkpoint again: of the function that gives all cotangents. */
static void eqnn__checkpoint_rule(eqnn__sweep *s, const eqnn__node *n)
{
    eqnn_ctx *c = s->c;
    eqnn__checkpoint *k = (eqnn__checkpoint *)(uintptr_t)n->aux;
    eqnn_tensor *g = eqnn__cotangent(s, n, 0);
    if (s->backward) {
        eqnn__checkpoint_backward(s, n, k, g);
        return;
    }
    eqnn__checkpoint_user u;
    u.k = k;
    u.weights = n->n_in - k->n;
    u.weight = n->in + k->n;
    eqnn__checkpoint *v = eqnn__checkpoint_make(c, eqnn__checkpoint_vjp, k->n + 1, &u, sizeof u);
    eqnn_tensor **in = (eqnn_tensor **)eqnn__arena_alloc(c, &c->step,
                                                         ((size_t)k->n + 1) * sizeof(void *));
    if (!v || !in) return;
    memcpy(in, n->in, (size_t)k->n * sizeof(void *));
    in[k->n] = g;
    eqnn_tensor *row = eqnn__checkpoint_run(c, v, in, k->n + 1);
    for (int i = 0, first = 0; row && i < n->n_in; i++) {
        int size = n->in[i]->rows * n->in[i]->cols;
        if (eqnn__wants(s, n, i))
            eqnn__give(s, n, i,
                       eqnn_reshape(eqnn_slice(row, first, size), n->in[i]->rows, n->in[i]->cols));
        first += size;
    }
}

/* --- users' own operations --- */

typedef struct eqnn__custom { eqnn_custom_op op; void *user; } eqnn__custom;

EQNN_API eqnn_tensor *eqnn_custom(const eqnn_custom_op *op, eqnn_tensor *const *x, int n,
                                  const void *user, size_t user_size)
{
    if (n < 1 || eqnn__bad(x[0], op->name)) return NULL;
    for (int i = 1; i < n; i++)
        if (eqnn__bad2(x[0], x[i], op->name)) return NULL;
    eqnn_ctx *c = x[0]->ctx;
    eqnn__custom *k = (eqnn__custom *)eqnn__arena_alloc(c, &c->step, sizeof *k);
    if (!k) return NULL;
    k->op = *op;
    k->user = eqnn__arena_alloc(c, &c->step, user_size);
    if (!k->user) return NULL;
    if (user && user_size) memcpy(k->user, user, user_size);
    int recording = eqnn_recording(c, 0);
    eqnn_tensor *y = op->value(x, n, k->user);
    eqnn_recording(c, recording);
    if (!y)
        return c->failed ? NULL : eqnn__fail(c, "%s: its value function returned NULL", op->name);
    eqnn__node *node = eqnn__record(c, EQNN__OP_CUSTOM, x, n, &y, 1);
    if (node) node->aux = k;
    return y;
}

static void eqnn__custom_rule(eqnn__sweep *s, const eqnn__node *n)
{
    eqnn_ctx *c = s->c;
    const eqnn__custom *k = (const eqnn__custom *)n->aux;
    size_t count = (size_t)n->n_in;
    eqnn_tensor **dx = (eqnn_tensor **)eqnn__arena_alloc(c, &c->step, count * sizeof(void *));
    int *want = (int *)eqnn__arena_alloc(c, &c->step, count * sizeof(int));
    if (!dx || !want) return;
    for (int i = 0; i < n->n_in; i++) {
        dx[i] = NULL;
        want[i] = eqnn__wants(s, n, i);
    }
    int ok = k->op.rule(n->in, n->n_in, n->out[0], eqnn__cotangent(s, n, 0), want, dx, k->user);
    if (!ok) eqnn__fail(c, "%s: its rule failed", k->op.name);
    for (int i = 0; ok && i < n->n_in; i++) eqnn__give(s, n, i, dx[i]);
}

/* --- the rules: every one written in operations, g the cotangent of the value --- */

static eqnn_tensor *eqnn__atan2_part(eqnn_tensor *g, eqnn_tensor *part, eqnn_tensor *y,
                                     eqnn_tensor *x)
{
    eqnn_tensor *x2 = eqnn_square(x), *y2 = eqnn_square(y), *r2 = eqnn_add(x2, y2);
    return eqnn_mul(g, eqnn_mul(part, eqnn_reciprocal(r2)));
}

/* y = softmax(x): dx = y (g - sum of g y over the group) */
static eqnn_tensor *eqnn__softmax_rule(eqnn_tensor *y, eqnn_tensor *g, const eqnn_ints *segment)
{
    eqnn_tensor *gy = eqnn_mul(g, y);
    eqnn_ints *index = (eqnn_ints *)(uintptr_t)segment;
    eqnn_tensor *sum = segment ? eqnn_take(eqnn_collect(gy, index), index) : eqnn_sum_cols(gy);
    return eqnn_sub(gy, eqnn_mul(y, sum));
}

/* y = |x|: dx = g u. The unit vector u = x / y, 0 at 0, is made first: its derivative has the size
   of 1 / y, and no higher power of 1 / y appears on the way, which would overflow at short x. */
static eqnn_tensor *eqnn__norm_rule(eqnn_tensor *x, eqnn_tensor *y, eqnn_tensor *g, int copies)
{
    eqnn_tensor *r = eqnn_reciprocal(y);
    if (copies) return eqnn_scale_copies(eqnn_scale_copies(x, r), g);
    return eqnn_mul(eqnn_mul(x, r), g);
}

static void eqnn__matmul_rule(eqnn__sweep *s, const eqnn__node *n, eqnn_tensor *g)
{
    eqnn_tensor *a = n->in[0], *b = n->in[1];
    int ta = n->i[0], tb = n->i[1];
    if (eqnn__wants(s, n, 0)) /* y = A B: dA = g B^T, transposed if A was */
        eqnn__give(s, n, 0, ta ? eqnn_matmul_t(b, g, tb, 1) : eqnn_matmul_t(g, b, 0, !tb));
    if (eqnn__wants(s, n, 1))
        eqnn__give(s, n, 1, tb ? eqnn_matmul_t(g, a, 1, ta) : eqnn_matmul_t(a, g, !ta, 0));
}

static void eqnn__concat_rule(eqnn__sweep *s, const eqnn__node *n, eqnn_tensor *g)
{
    for (int i = 0, first = 0; i < n->n_in; i++) {
        int size = n->op == EQNN__OP_CONCAT ? n->in[i]->cols : n->in[i]->rows;
        if (eqnn__wants(s, n, i))
            eqnn__give(s, n, i,
                       n->op == EQNN__OP_CONCAT ? eqnn_slice(g, first, size)
                                                : eqnn_slice_rows(g, first, size));
        first += size;
    }
}

static void eqnn__rule_two(eqnn__sweep *s, const eqnn__node *n, eqnn_tensor *g)
{
    eqnn_tensor *a = n->in[0], *b = n->in[1];
    int da = eqnn__wants(s, n, 0), db = eqnn__wants(s, n, 1);
    switch (n->op) {
    case EQNN__OP_AXPBY:
        if (da) eqnn__give(s, n, 0, eqnn__un(eqnn_scale(g, n->p[0]), a));
        if (db) eqnn__give(s, n, 1, eqnn__un(eqnn_scale(g, n->p[1]), b));
        break;
    case EQNN__OP_MUL:
        if (da) eqnn__give(s, n, 0, eqnn__un(eqnn_mul(g, b), a));
        if (db) eqnn__give(s, n, 1, eqnn__un(eqnn_mul(g, a), b));
        break;
    case EQNN__OP_DIV:
        if (da) eqnn__give(s, n, 0, eqnn__un(eqnn_div(g, b), a));
        if (db) eqnn__give(s, n, 1, eqnn__un(eqnn_neg(eqnn_div(eqnn_mul(g, n->out[0]), b)), b));
        break;
    case EQNN__OP_ATAN2:
        if (da) eqnn__give(s, n, 0, eqnn__un(eqnn__atan2_part(g, b, a, b), a));
        if (db) eqnn__give(s, n, 1, eqnn__un(eqnn_neg(eqnn__atan2_part(g, a, a, b)), b));
        break;
    default: break;
    }
}

static void eqnn__where_rule(eqnn__sweep *s, const eqnn__node *n, eqnn_tensor *g)
{
    eqnn_tensor *zero = eqnn_zeros(s->c, 1, 1);
    if (eqnn__wants(s, n, 1))
        eqnn__give(s, n, 1, eqnn__un(eqnn_where(n->in[0], g, zero), n->in[1]));
    if (eqnn__wants(s, n, 2))
        eqnn__give(s, n, 2, eqnn__un(eqnn_where(n->in[0], zero, g), n->in[2]));
}

/* y = t f^(n)(x), t absent or a factor: dx = g t f^(n+1)(x), dt = g f^(n)(x) */
static void eqnn__map_rule(eqnn__sweep *s, const eqnn__node *n, eqnn_tensor *g)
{
    eqnn_tensor *x = n->in[0], *t = n->n_in > 1 ? n->in[1] : NULL;
    if (eqnn__wants(s, n, 0))
        eqnn__give(s, n, 0, eqnn__map(x, n->i[0], n->p[0], n->i[1] + 1, t ? eqnn_mul(g, t) : g));
    if (t && eqnn__wants(s, n, 1)) eqnn__give(s, n, 1, eqnn__map(x, n->i[0], n->p[0], n->i[1], g));
}

static void eqnn__rule(eqnn__sweep *s, const eqnn__node *n)
{
    eqnn_tensor *g = eqnn__cotangent(s, n, 0), *x = n->in[0];
    eqnn_ints *index = (eqnn_ints *)(uintptr_t)n->aux;
    switch (n->op) {
    case EQNN__OP_MAP: eqnn__map_rule(s, n, g); break;
    case EQNN__OP_AXPBY:
    case EQNN__OP_MUL:
    case EQNN__OP_DIV:
    case EQNN__OP_ATAN2: eqnn__rule_two(s, n, g); break;
    case EQNN__OP_SCALE: eqnn__give(s, n, 0, eqnn_scale(g, n->p[0])); break;
    case EQNN__OP_WHERE: eqnn__where_rule(s, n, g); break;
    case EQNN__OP_MATMUL: eqnn__matmul_rule(s, n, g); break;
    case EQNN__OP_TRANSPOSE: eqnn__give(s, n, 0, eqnn_transpose(g)); break;
    case EQNN__OP_VIEW: eqnn__give(s, n, 0, eqnn_reshape(g, x->rows, x->cols)); break;
    case EQNN__OP_STRETCH: eqnn__give(s, n, 0, eqnn__un(g, x)); break;
    case EQNN__OP_SUM_ROWS:
    case EQNN__OP_SUM_COLS: eqnn__give(s, n, 0, eqnn_stretch(g, x->rows, x->cols)); break;
    case EQNN__OP_TAKE: eqnn__give(s, n, 0, eqnn_collect(g, index)); break;
    case EQNN__OP_COLLECT: eqnn__give(s, n, 0, eqnn_take(g, index)); break;
    case EQNN__OP_COLUMNS: eqnn__give(s, n, 0, eqnn_collect_columns(g, index)); break;
    case EQNN__OP_COLLECT_COLUMNS: eqnn__give(s, n, 0, eqnn_columns(g, index)); break;
    case EQNN__OP_SOFTMAX: eqnn__give(s, n, 0, eqnn__softmax_rule(n->out[0], g, NULL)); break;
    case EQNN__OP_SEGMENT_SOFTMAX:
        eqnn__give(s, n, 0, eqnn__softmax_rule(n->out[0], g, index));
        break;
    case EQNN__OP_CONCAT:
    case EQNN__OP_STACK: eqnn__concat_rule(s, n, g); break;
    case EQNN__OP_SLICE: eqnn__give(s, n, 0, eqnn__pad(g, n->i[0], x->cols)); break;
    case EQNN__OP_PAD: eqnn__give(s, n, 0, eqnn_slice(g, n->i[0], x->cols)); break;
    case EQNN__OP_SLICE_ROWS: eqnn__give(s, n, 0, eqnn__pad_rows(g, n->i[0], x->rows)); break;
    case EQNN__OP_PAD_ROWS: eqnn__give(s, n, 0, eqnn_slice_rows(g, n->i[0], x->rows)); break;
    case EQNN__OP_FORM: eqnn__form_rule(s, n); break;
    case EQNN__OP_NORM: eqnn__give(s, n, 0, eqnn__norm_rule(x, n->out[0], g, n->i[0])); break;
    case EQNN__OP_SOLID: eqnn__solid_rule(s, n); break;
    case EQNN__OP_CUSTOM: eqnn__custom_rule(s, n); break;
    case EQNN__OP_CHECKPOINT: eqnn__checkpoint_rule(s, n); break;
    default: eqnn__fail(s->c, "grad: operation %d has no rule", n->op);
    }
}

/* ----------------------------------------------------------------------------------------------
   6 >>operations
   ---------------------------------------------------------------------------------------------- */

/* Working memory for the kernel calls between begin and end: the top of the step's memory. */
typedef struct eqnn__scratch_mark { size_t at, used; } eqnn__scratch_mark;

static eqnn__scratch_mark eqnn__scratch_begin(eqnn_ctx *c, size_t bytes)
{
    eqnn__scratch_mark m;
    m.at = c->step.at;
    m.used = c->step.used;
    c->device.scratch = bytes ? eqnn__arena_alloc(c, &c->step, bytes) : NULL;
    c->device.scratch_size = c->device.scratch ? bytes : 0;
    return m;
}

static void eqnn__scratch_end(eqnn_ctx *c, eqnn__scratch_mark m)
{
    eqnn__arena_cut(&c->step, m.at, m.used);
    c->device.scratch = NULL;
    c->device.scratch_size = 0;
}

/* --- drawing --- */

static eqnn_tensor *eqnn__draw(eqnn_ctx *c, const char *name, int rows, int cols, int kind,
                               double p)
{
    if (!c || c->failed) return NULL;
    c->op = "random";
    eqnn_tensor *x = eqnn__new(c, rows, cols);
    if (x)
        c->k->random(&c->device, kind, eqnn__name_key(c, name), c->tick, eqnn__count(x), p,
                     x->data);
    return x;
}

EQNN_API eqnn_tensor *eqnn_normal(eqnn_ctx *c, const char *name, int rows, int cols)
{
    return eqnn__draw(c, name, rows, cols, EQNN__NORMAL, 0);
}

EQNN_API eqnn_tensor *eqnn_uniform(eqnn_ctx *c, const char *name, int rows, int cols)
{
    return eqnn__draw(c, name, rows, cols, EQNN__UNIFORM, 0);
}

/* --- labels of results; inside rules nothing is checked --- */

/* Refuses numbers that turn, where an operation cannot follow. */
static int eqnn__refuse(const eqnn_tensor *x, const char *op, const char *instead)
{
    if (x->ctx->in_rule || eqnn__invariant(x->label)) return 0;
    eqnn__fail(x->ctx, "%s%s%s: %s is not invariant; this would break the symmetry; %s", op,
               x->ctx->scope_depth ? " in " : "", x->ctx->scope_depth ? x->ctx->scope : "",
               x->label->name, instead);
    return 1;
}

/* Label of a + b; 0 when they do not turn alike. */
static int eqnn__label_sum(const eqnn_tensor *a, const eqnn_tensor *b, const char *op,
                           const eqnn_label **label)
{
    *label = NULL;
    if (a->ctx->in_rule || (!a->label && !b->label)) return 1;
    int ia = eqnn__invariant(a->label), ib = eqnn__invariant(b->label);
    if (ia && ib) {
        *label = a->cols >= b->cols ? a->label : b->label;
        return 1;
    }
    if (!ia && !ib && eqnn__label_same(a->label, b->label)) {
        *label = a->label;
        return 1;
    }
    eqnn__fail(a->ctx, "%s: %s and %s do not turn alike; this would break the symmetry", op,
               eqnn__label_text(a->label), eqnn__label_text(b->label));
    return 0;
}

/* Label of a b: one of them may turn when the other is one invariant number a row. */
static int eqnn__label_product(const eqnn_tensor *a, const eqnn_tensor *b, const char *op,
                               const eqnn_label **label)
{
    *label = NULL;
    if (a->ctx->in_rule || (!a->label && !b->label)) return 1;
    int ia = eqnn__invariant(a->label), ib = eqnn__invariant(b->label);
    if (ia && ib) *label = a->cols >= b->cols ? a->label : b->label;
    else if (ib && b->cols == 1) *label = a->label;
    else if (ia && a->cols == 1) *label = b->label;
    else if (eqnn__permuted(a->label) && eqnn__label_same(a->label, b->label)) *label = a->label;
    else {
        eqnn__fail(
            a->ctx,
            "%s: %s times %s column by column would break the symmetry; use eqnn_scale_copies or "
            "eqnn_tensor_product",
            op, eqnn__label_text(a->label), eqnn__label_text(b->label));
        return 0;
    }
    return 1;
}

/* --- elementwise --- */

static eqnn__in eqnn__in_of(const eqnn_tensor *x, int rows, int cols)
{
    eqnn__in in;
    in.p = x ? x->data : NULL;
    in.rs = x && (x->rows != 1 || rows == 1) ? (size_t)x->cols : 0;
    in.cs = x && (x->cols != 1 || cols == 1) ? (size_t)1 : 0;
    return in;
}

static int eqnn__side(int a, int b)
{
    return a == 1 ? b : a;
}

/* Do two sizes fit, sides of length 1 stretching? */
static int eqnn__fit(const eqnn_tensor *a, const eqnn_tensor *b, const char *op)
{
    if ((a->rows == b->rows || a->rows == 1 || b->rows == 1) &&
        (a->cols == b->cols || a->cols == 1 || b->cols == 1))
        return 1;
    eqnn__fail(a->ctx, "%s: [%d,%d] and [%d,%d] do not fit; only sides of length 1 stretch", op,
               a->rows, a->cols, b->rows, b->cols);
    return 0;
}

/* Runs the elementwise kernel over up to three operands. */
static eqnn_tensor *eqnn__pointwise(int op, int order, eqnn_tensor *a, eqnn_tensor *b,
                                    eqnn_tensor *third, double p0, double p1)
{
    eqnn_ctx *c = a->ctx;
    int rows = a->rows, cols = a->cols;
    if (b) rows = eqnn__side(rows, b->rows), cols = eqnn__side(cols, b->cols);
    if (third) rows = eqnn__side(rows, third->rows), cols = eqnn__side(cols, third->cols);
    eqnn_tensor *y = eqnn__new(c, rows, cols);
    if (!y) return NULL;
    c->k->map(&c->device, op, order, (size_t)rows, (size_t)cols, eqnn__in_of(a, rows, cols),
              eqnn__in_of(b, rows, cols), eqnn__in_of(third, rows, cols), p0, p1, y->data);
    return y;
}

static const char *const eqnn__act_names[] = {
    "identity", "exp", "log",  "sin",  "cos",           "tanh",        "sigmoid",    "silu",
    "softplus", "ssp", "gelu", "erf",  "relu",          "abs",         "step",       "leaky_relu",
    "elu",      "pow", "sus",  "sinc", "sinc_root", "cosine_cutoff", "poly_cutoff", "cosine_bump",
    "arc"
};
#define EQNN__ACTS ((int)(sizeof eqnn__act_names / sizeof eqnn__act_names[0]))

/* y = times f^(order)(x); without times just the derivative */
static eqnn_tensor *eqnn__map(eqnn_tensor *x, int f, double p, int order, eqnn_tensor *times)
{
    if (times ? eqnn__bad2(x, times, "map") : eqnn__bad(x, "map")) return NULL;
    if (times && !eqnn__fit(x, times, "map")) return NULL;
    if (order > EQNN__ORDERS)
        return eqnn__fail(x->ctx, "%s: derivatives beyond order %d are not known",
                          eqnn__act_names[f], EQNN__ORDERS);
    eqnn_tensor *y = eqnn__pointwise(f, order, x, times, NULL, p, 0), *in[2];
    in[0] = x;
    in[1] = times;
    eqnn__node *n = y ? eqnn__record(x->ctx, EQNN__OP_MAP, in, times ? 2 : 1, &y, 1) : NULL;
    if (n) {
        n->i[0] = f;
        n->i[1] = order;
        n->p[0] = p;
    }
    return y;
}

EQNN_API eqnn_act eqnn_act_find(eqnn_ctx *c, const char *name)
{
    for (int i = 0; i < EQNN__ACTS; i++)
        if (!strcmp(name, eqnn__act_names[i])) return (eqnn_act)i;
    eqnn__fail(c,
               "activation \"%s\" is not known; known are identity, silu, tanh, sigmoid, relu, "
               "abs, gelu, ...",
               name);
    return EQNN_IDENTITY;
}

EQNN_API eqnn_tensor *eqnn_map(eqnn_tensor *x, eqnn_act f, double p, int order)
{
    if ((int)f < 0 || (int)f >= EQNN__ACTS)
        return x ? eqnn__fail(x->ctx, "map: function %d is not known", (int)f) : NULL;
    if (eqnn__bad(x, eqnn__act_names[f])) return NULL;
    if (order < 0 || order > EQNN__ORDERS)
        return eqnn__fail(x->ctx, "%s: derivative of order %d; 0 to %d are known",
                          eqnn__act_names[f], order, EQNN__ORDERS);
    if (!eqnn__permuted(x->label) &&
        eqnn__refuse(x, eqnn__act_names[f], "use eqnn_gate, or eqnn_as(x, NULL) knowingly"))
        return NULL;
    eqnn_tensor *y = eqnn__map(x, (int)f, p, order, NULL);
    if (y && !x->ctx->in_rule) y->label = x->label;
    return y;
}

EQNN_API eqnn_tensor *eqnn_exp(eqnn_tensor *x) { return eqnn_map(x, EQNN_EXP, 0, 0); }
EQNN_API eqnn_tensor *eqnn_log(eqnn_tensor *x) { return eqnn_map(x, EQNN_LOG, 0, 0); }
EQNN_API eqnn_tensor *eqnn_sqrt(eqnn_tensor *x) { return eqnn_map(x, EQNN_POW, 0.5, 0); }
EQNN_API eqnn_tensor *eqnn_rsqrt(eqnn_tensor *x) { return eqnn_map(x, EQNN_POW, -0.5, 0); }
EQNN_API eqnn_tensor *eqnn_reciprocal(eqnn_tensor *x) { return eqnn_map(x, EQNN_POW, -1, 0); }
EQNN_API eqnn_tensor *eqnn_square(eqnn_tensor *x) { return eqnn_map(x, EQNN_POW, 2, 0); }
EQNN_API eqnn_tensor *eqnn_pow(eqnn_tensor *x, double exponent)
{
    return eqnn_map(x, EQNN_POW, exponent, 0);
}
EQNN_API eqnn_tensor *eqnn_sin(eqnn_tensor *x) { return eqnn_map(x, EQNN_SIN, 0, 0); }
EQNN_API eqnn_tensor *eqnn_cos(eqnn_tensor *x) { return eqnn_map(x, EQNN_COS, 0, 0); }
EQNN_API eqnn_tensor *eqnn_tanh(eqnn_tensor *x) { return eqnn_map(x, EQNN_TANH, 0, 0); }
EQNN_API eqnn_tensor *eqnn_sigmoid(eqnn_tensor *x) { return eqnn_map(x, EQNN_SIGMOID, 0, 0); }
EQNN_API eqnn_tensor *eqnn_silu(eqnn_tensor *x) { return eqnn_map(x, EQNN_SILU, 0, 0); }
EQNN_API eqnn_tensor *eqnn_relu(eqnn_tensor *x) { return eqnn_map(x, EQNN_RELU, 0, 0); }
EQNN_API eqnn_tensor *eqnn_leaky_relu(eqnn_tensor *x, double slope)
{
    return eqnn_map(x, EQNN_LEAKY_RELU, slope, 0);
}
EQNN_API eqnn_tensor *eqnn_gelu(eqnn_tensor *x) { return eqnn_map(x, EQNN_GELU, 0, 0); }
EQNN_API eqnn_tensor *eqnn_erf(eqnn_tensor *x) { return eqnn_map(x, EQNN_ERF, 0, 0); }
EQNN_API eqnn_tensor *eqnn_softplus(eqnn_tensor *x) { return eqnn_map(x, EQNN_SOFTPLUS, 0, 0); }
EQNN_API eqnn_tensor *eqnn_elu(eqnn_tensor *x) { return eqnn_map(x, EQNN_ELU, 1, 0); }
EQNN_API eqnn_tensor *eqnn_abs(eqnn_tensor *x) { return eqnn_map(x, EQNN_ABS, 0, 0); }

/* Two operands: checks, kernel, node. */
static eqnn_tensor *eqnn__two(eqnn_tensor *a, eqnn_tensor *b, int kernel, int op, double p0,
                              double p1, const eqnn_label *label)
{
    eqnn_tensor *y = eqnn__pointwise(kernel, 0, a, b, NULL, p0, p1), *in[2];
    if (!y) return NULL;
    if (label && label->cols == y->cols) y->label = label;
    in[0] = a;
    in[1] = b;
    eqnn__node *n = op ? eqnn__record(a->ctx, op, in, 2, &y, 1) : NULL;
    if (n) {
        n->p[0] = p0;
        n->p[1] = p1;
    }
    return y;
}

/* A number of a wider label cannot be made by stretching one column. */
static eqnn_tensor *eqnn__sum_of(eqnn_tensor *a, eqnn_tensor *b, const char *op, int kernel,
                                 double sign)
{
    const eqnn_label *label;
    if (eqnn__bad2(a, b, op) || !eqnn__fit(a, b, op) || !eqnn__label_sum(a, b, op, &label))
        return NULL;
    return eqnn__two(a, b, kernel, EQNN__OP_AXPBY, 1, sign, label);
}

EQNN_API eqnn_tensor *eqnn_add(eqnn_tensor *a, eqnn_tensor *b)
{
    return eqnn__sum_of(a, b, "add", EQNN__ADD, 1);
}

EQNN_API eqnn_tensor *eqnn_sub(eqnn_tensor *a, eqnn_tensor *b)
{
    return eqnn__sum_of(a, b, "sub", EQNN__SUB, -1);
}

EQNN_API eqnn_tensor *eqnn_mul(eqnn_tensor *a, eqnn_tensor *b)
{
    const eqnn_label *label;
    if (eqnn__bad2(a, b, "mul") || !eqnn__fit(a, b, "mul") ||
        !eqnn__label_product(a, b, "mul", &label))
        return NULL;
    return eqnn__two(a, b, EQNN__MUL, EQNN__OP_MUL, 0, 0, label);
}

EQNN_API eqnn_tensor *eqnn_div(eqnn_tensor *a, eqnn_tensor *b)
{
    const eqnn_label *label;
    if (eqnn__bad2(a, b, "div") || !eqnn__fit(a, b, "div") ||
        !eqnn__label_product(a, b, "div", &label))
        return NULL;
    if (eqnn__refuse(b, "div", "divide by an invariant number")) return NULL;
    return eqnn__two(a, b, EQNN__DIV, EQNN__OP_DIV, 0, 0, label);
}

static eqnn_tensor *eqnn__scale(eqnn_tensor *x, double s, double shift, const char *op)
{
    if (eqnn__bad(x, op)) return NULL;
    if (shift != 0 && !eqnn__permuted(x->label) &&
        eqnn__refuse(x, op, "a constant can only be added to invariant numbers"))
        return NULL;
    eqnn_tensor *y = eqnn__pointwise(EQNN__SCALE, 0, x, NULL, NULL, s, shift);
    if (!y) return NULL;
    if (!x->ctx->in_rule) y->label = x->label;
    eqnn__node *n = eqnn__record(x->ctx, EQNN__OP_SCALE, &x, 1, &y, 1);
    if (n) n->p[0] = s;
    return y;
}

/* In rules a factor of 1 costs nothing. */
EQNN_API eqnn_tensor *eqnn_scale(eqnn_tensor *a, double s)
{
    return a && a->ctx->in_rule && s == 1 ? a : eqnn__scale(a, s, 0, "scale");
}

EQNN_API eqnn_tensor *eqnn_shift(eqnn_tensor *a, double s) { return eqnn__scale(a, 1, s, "shift"); }
EQNN_API eqnn_tensor *eqnn_neg(eqnn_tensor *a) { return eqnn__scale(a, -1, 0, "neg"); }

/* y = a x + b, elementwise; sides of length 1 stretch. */
EQNN_API eqnn_tensor *eqnn_affine(eqnn_tensor *x, eqnn_tensor *a, eqnn_tensor *b)
{
    return eqnn_add(eqnn_mul(a, x), b);
}

EQNN_API eqnn_tensor *eqnn_atan2(eqnn_tensor *y, eqnn_tensor *x)
{
    if (eqnn__bad2(y, x, "atan2") || !eqnn__fit(y, x, "atan2")) return NULL;
    if (eqnn__refuse(y, "atan2", "take invariants first") ||
        eqnn__refuse(x, "atan2", "take invariants first"))
        return NULL;
    return eqnn__two(y, x, EQNN__ATAN2, EQNN__OP_ATAN2, 0, 0, NULL);
}

/* Comparisons give constants: no node. */
static eqnn_tensor *eqnn__compare(eqnn_tensor *a, eqnn_tensor *b, const char *op, int kernel)
{
    if (eqnn__bad2(a, b, op) || !eqnn__fit(a, b, op)) return NULL;
    if (eqnn__refuse(a, op, "compare invariants") || eqnn__refuse(b, op, "compare invariants"))
        return NULL;
    return eqnn__two(a, b, kernel, 0, 0, 0, NULL);
}

EQNN_API eqnn_tensor *eqnn_less(eqnn_tensor *a, eqnn_tensor *b)
{
    return eqnn__compare(a, b, "less", EQNN__LESS);
}
EQNN_API eqnn_tensor *eqnn_equal(eqnn_tensor *a, eqnn_tensor *b)
{
    return eqnn__compare(a, b, "equal", EQNN__EQUAL);
}

EQNN_API eqnn_tensor *eqnn_where(eqnn_tensor *cond, eqnn_tensor *a, eqnn_tensor *b)
{
    const eqnn_label *label;
    if (eqnn__bad2(a, b, "where") || eqnn__bad2(cond, a, "where")) return NULL;
    if (!eqnn__fit(cond, a, "where") || !eqnn__fit(cond, b, "where") || !eqnn__fit(a, b, "where"))
        return NULL;
    if (!eqnn__label_sum(a, b, "where", &label)) return NULL;
    if (!eqnn__invariant(label) && cond->cols != 1)
        return eqnn__fail(a->ctx, "where: %s needs one condition a row, not [%d,%d]", label->name,
                          cond->rows, cond->cols);
    eqnn_tensor *y = eqnn__pointwise(EQNN__WHERE, 0, cond, a, b, 0, 0), *in[3];
    if (!y) return NULL;
    in[0] = cond;
    in[1] = a;
    in[2] = b;
    if (label && label->cols == y->cols) y->label = label;
    eqnn__record(a->ctx, EQNN__OP_WHERE, in, 3, &y, 1);
    return y;
}

EQNN_API eqnn_tensor *eqnn_min(eqnn_tensor *a, eqnn_tensor *b)
{
    return eqnn_where(eqnn_less(b, a), b, a);
}
EQNN_API eqnn_tensor *eqnn_max(eqnn_tensor *a, eqnn_tensor *b)
{
    return eqnn_where(eqnn_less(a, b), b, a);
}

EQNN_API eqnn_tensor *eqnn_clamp(eqnn_tensor *x, double low, double high)
{
    if (eqnn__bad(x, "clamp")) return NULL;
    return eqnn_min(eqnn_max(x, eqnn_full(x->ctx, 1, 1, low)), eqnn_full(x->ctx, 1, 1, high));
}

/* --- matrices --- */

EQNN_API eqnn_tensor *eqnn_matmul_t(eqnn_tensor *a, eqnn_tensor *b, int ta, int tb)
{
    if (eqnn__bad2(a, b, "matmul")) return NULL;
    eqnn_ctx *c = a->ctx;
    int m = ta ? a->cols : a->rows, k = ta ? a->rows : a->cols, l = tb ? b->cols : b->rows,
        n = tb ? b->rows : b->cols;
    if (k != l) return eqnn__fail(c, "matmul: [%d,%d] x [%d,%d]: inner sizes differ", m, k, l, n);
    if (eqnn__refuse(a, "matmul", "use eqnn_irreps_linear") ||
        eqnn__refuse(b, "matmul", "use eqnn_irreps_linear"))
        return NULL;
    eqnn_tensor *y = eqnn__new(c, m, n), *in[2];
    if (!y) return NULL;
    eqnn__scratch_mark s = eqnn__scratch_begin(
        c, eqnn__gemm_scratch(&c->device, (size_t)m, (size_t)n, (size_t)k));
    if (c->failed) return NULL;
    c->k->gemm(&c->device, ta, tb, (size_t)m, (size_t)n, (size_t)k, 1, a->data, (size_t)a->cols, 0,
               b->data, (size_t)b->cols, 0, 0, y->data, (size_t)n, 0, 1);
    eqnn__scratch_end(c, s);
    in[0] = a;
    in[1] = b;
    eqnn__node *node = eqnn__record(c, EQNN__OP_MATMUL, in, 2, &y, 1);
    if (node) {
        node->i[0] = ta;
        node->i[1] = tb;
    }
    return y;
}

EQNN_API eqnn_tensor *eqnn_matmul(eqnn_tensor *a, eqnn_tensor *b)
{
    return eqnn_matmul_t(a, b, 0, 0);
}

EQNN_API eqnn_tensor *eqnn_transpose(eqnn_tensor *x)
{
    if (eqnn__bad(x, "transpose") ||
        eqnn__refuse(x, "transpose", "take the label off with eqnn_as(x, NULL)"))
        return NULL;
    eqnn_tensor *y = eqnn__new(x->ctx, x->cols, x->rows);
    if (!y) return NULL;
    x->ctx->k->transpose(&x->ctx->device, (size_t)x->rows, (size_t)x->cols, x->data, y->data);
    eqnn__record(x->ctx, EQNN__OP_TRANSPOSE, &x, 1, &y, 1);
    return y;
}

/* A new header over the same numbers. */
static eqnn_tensor *eqnn__alias(eqnn_tensor *x, int rows, int cols, const eqnn_label *label)
{
    eqnn_tensor *y = eqnn__header(x->ctx, rows, cols, x->data);
    if (!y) return NULL;
    y->base = x;
    y->label = label;
    eqnn__record(x->ctx, EQNN__OP_VIEW, &x, 1, &y, 1);
    return y;
}

EQNN_API eqnn_tensor *eqnn_reshape(eqnn_tensor *x, int rows, int cols)
{
    if (eqnn__bad(x, "reshape")) return NULL;
    if (rows == x->rows && cols == x->cols) return x;
    if (rows < 0 || cols < 0 || (size_t)rows * (size_t)cols != eqnn__count(x))
        return eqnn__fail(x->ctx, "reshape: [%d,%d] to [%d,%d]", x->rows, x->cols, rows, cols);
    if (eqnn__refuse(x, "reshape", "take the label off with eqnn_as(x, NULL)")) return NULL;
    return eqnn__alias(x, rows, cols, NULL);
}

EQNN_API eqnn_tensor *eqnn_as(eqnn_tensor *x, const eqnn_label *label)
{
    if (eqnn__bad(x, "as")) return NULL;
    if (label == x->label) return x;
    if (label && label->cols != x->cols)
        return eqnn__fail(x->ctx, "as: %s has %d columns, the tensor %d", label->name, label->cols,
                          x->cols);
    return eqnn__alias(x, x->rows, x->cols, label);
}

EQNN_API eqnn_tensor *eqnn_stretch(eqnn_tensor *x, int rows, int cols)
{
    if (eqnn__bad(x, "stretch")) return NULL;
    if (rows == x->rows && cols == x->cols) return x;
    if ((x->rows != rows && x->rows != 1) || (x->cols != cols && x->cols != 1))
        return eqnn__fail(x->ctx, "stretch: [%d,%d] to [%d,%d]; only sides of length 1 stretch",
                          x->rows, x->cols, rows, cols);
    if (cols != x->cols && eqnn__refuse(x, "stretch", "only rows of it may be stretched"))
        return NULL;
    eqnn_ctx *c = x->ctx;
    eqnn_tensor *y = eqnn__new(c, rows, cols);
    if (!y) return NULL;
    c->k->map(&c->device, EQNN__SCALE, 0, (size_t)rows, (size_t)cols, eqnn__in_of(x, rows, cols),
              eqnn__in_of(NULL, 0, 0), eqnn__in_of(NULL, 0, 0), 1, 0, y->data);
    if (cols == x->cols && !c->in_rule) y->label = x->label;
    eqnn__record(c, EQNN__OP_STRETCH, &x, 1, &y, 1);
    return y;
}

/* --- sums --- */

EQNN_API eqnn_tensor *eqnn_sum_rows(eqnn_tensor *x)
{
    if (eqnn__bad(x, "sum_rows")) return NULL;
    eqnn_tensor *y = eqnn__new(x->ctx, 1, x->cols);
    if (!y) return NULL;
    x->ctx->k->fold_rows(&x->ctx->device, EQNN__SUM, (size_t)x->rows, (size_t)x->cols, x->data,
                         y->data);
    if (!x->ctx->in_rule) y->label = x->label;
    eqnn__record(x->ctx, EQNN__OP_SUM_ROWS, &x, 1, &y, 1);
    return y;
}

EQNN_API eqnn_tensor *eqnn_sum_cols(eqnn_tensor *x)
{
    if (eqnn__bad(x, "sum_cols") ||
        eqnn__refuse(x, "sum_cols", "use eqnn_square_copies or eqnn_irreps_linear"))
        return NULL;
    eqnn_tensor *y = eqnn__new(x->ctx, x->rows, 1);
    if (!y) return NULL;
    x->ctx->k->fold_cols(&x->ctx->device, EQNN__SUM, (size_t)x->rows, (size_t)x->cols, x->data,
                         y->data);
    eqnn__record(x->ctx, EQNN__OP_SUM_COLS, &x, 1, &y, 1);
    return y;
}

/* The adjoint of stretching: sums g over the sides that were stretched to reach it. */
static eqnn_tensor *eqnn__un(eqnn_tensor *g, const eqnn_tensor *like)
{
    if (g && g->rows != like->rows) g = eqnn_sum_rows(g);
    if (g && g->cols != like->cols) g = eqnn_sum_cols(g);
    return g;
}

EQNN_API eqnn_tensor *eqnn_sum(eqnn_tensor *x)
{
    if (eqnn__bad(x, "sum") || eqnn__refuse(x, "sum", "sum rows with eqnn_sum_rows")) return NULL;
    return eqnn_sum_cols(eqnn_reshape(x, 1, (int)eqnn__count(x)));
}

EQNN_API eqnn_tensor *eqnn_mean(eqnn_tensor *x)
{
    return x ? eqnn_scale(eqnn_sum(x), 1.0 / (double)(eqnn__count(x) ? eqnn__count(x) : 1)) : NULL;
}

EQNN_API eqnn_tensor *eqnn_mean_rows(eqnn_tensor *x)
{
    return x ? eqnn_scale(eqnn_sum_rows(x), 1.0 / (x->rows ? x->rows : 1)) : NULL;
}

EQNN_API eqnn_tensor *eqnn_mean_cols(eqnn_tensor *x)
{
    return x ? eqnn_scale(eqnn_sum_cols(x), 1.0 / (x->cols ? x->cols : 1)) : NULL;
}

/* --- rows and columns by index --- */

static int eqnn__bad_index(const eqnn_tensor *x, const eqnn_ints *index, const char *op)
{
    if (eqnn__bad(x, op)) return 1;
    if (!index) eqnn__fail(x->ctx, "%s: the index is missing (NULL)", op);
    return !index;
}

EQNN_API eqnn_tensor *eqnn_take(eqnn_tensor *x, eqnn_ints *index)
{
    if (eqnn__bad_index(x, index, "take")) return NULL;
    if (index->range != x->rows)
        return eqnn__fail(x->ctx, "take: the index has range %d, the tensor %d rows", index->range,
                          x->rows);
    eqnn_tensor *y = eqnn__new(x->ctx, index->count, x->cols);
    if (!y) return NULL;
    x->ctx->k->take_rows(&x->ctx->device, (size_t)index->count, (size_t)x->cols, index->v, x->data,
                         y->data);
    if (!x->ctx->in_rule) y->label = x->label;
    eqnn__node *n = eqnn__record(x->ctx, EQNN__OP_TAKE, &x, 1, &y, 1);
    if (n) n->aux = index;
    return y;
}

static int eqnn__collect_fits(const eqnn_tensor *x, const eqnn_ints *index, const char *op)
{
    if (index->count == x->rows && index->range > 0) return 1;
    if (index->range == 0 && index->count == 0 && x->rows == 0) return 1;
    eqnn__fail(x->ctx, "%s: %d indices of range %d for %d rows", op, index->count, index->range,
               x->rows);
    return 0;
}

EQNN_API eqnn_tensor *eqnn_collect(eqnn_tensor *x, eqnn_ints *index)
{
    if (eqnn__bad_index(x, index, "collect") || !eqnn__collect_fits(x, index, "collect"))
        return NULL;
    eqnn_tensor *y = eqnn__new(x->ctx, index->range, x->cols);
    if (!y) return NULL;
    if (index->range)
        x->ctx->k->fold_segments(&x->ctx->device, EQNN__SUM, (size_t)index->range, index->first,
                                 index->list, (size_t)x->cols, x->data, y->data);
    if (!x->ctx->in_rule) y->label = x->label;
    eqnn__node *n = eqnn__record(x->ctx, EQNN__OP_COLLECT, &x, 1, &y, 1);
    if (n) n->aux = index;
    return y;
}

EQNN_API eqnn_tensor *eqnn_segment_sum(eqnn_tensor *x, eqnn_ints *segment)
{
    return eqnn_collect(x, segment);
}

EQNN_API eqnn_tensor *eqnn_segment_mean(eqnn_tensor *x, eqnn_ints *segment)
{
    eqnn_tensor *sum = eqnn_collect(x, segment);
    eqnn_tensor *inverse = sum ? eqnn_zeros(x->ctx, segment->range, 1) : NULL;
    for (int i = 0; inverse && i < segment->range; i++) {
        int n = segment->first[i + 1] - segment->first[i];
        inverse->data[i] = (eqnn_real)(1.0 / (n > 0 ? n : 1));
    }
    return eqnn_mul(sum, inverse);
}

EQNN_API eqnn_tensor *eqnn_columns(eqnn_tensor *x, eqnn_ints *index)
{
    if (eqnn__bad_index(x, index, "columns") || eqnn__refuse(x, "columns", "use eqnn_slice"))
        return NULL;
    if (index->range != x->cols)
        return eqnn__fail(x->ctx, "columns: the index has range %d, the tensor %d columns",
                          index->range, x->cols);
    eqnn_tensor *y = eqnn__new(x->ctx, x->rows, index->count);
    if (!y) return NULL;
    x->ctx->k->take_cols(&x->ctx->device, (size_t)x->rows, (size_t)index->count, index->v, x->data,
                         (size_t)x->cols, y->data);
    eqnn__node *n = eqnn__record(x->ctx, EQNN__OP_COLUMNS, &x, 1, &y, 1);
    if (n) n->aux = index;
    return y;
}

EQNN_API eqnn_tensor *eqnn_collect_columns(eqnn_tensor *x, eqnn_ints *index)
{
    if (eqnn__bad_index(x, index, "collect_columns") ||
        eqnn__refuse(x, "collect_columns", "use eqnn_irreps_linear"))
        return NULL;
    if (index->count != x->cols || !index->first)
        return eqnn__fail(x->ctx, "collect_columns: %d indices for %d columns", index->count,
                          x->cols);
    eqnn_tensor *y = eqnn__new(x->ctx, x->rows, index->range);
    if (!y) return NULL;
    x->ctx->k->add_cols(&x->ctx->device, (size_t)x->rows, (size_t)index->range, index->first,
                        index->list, x->data, (size_t)x->cols, y->data);
    eqnn__node *n = eqnn__record(x->ctx, EQNN__OP_COLLECT_COLUMNS, &x, 1, &y, 1);
    if (n) n->aux = index;
    return y;
}

/* Places r * cols + index[r] in the row-major list of all entries. */
static eqnn_ints *eqnn__places(eqnn_tensor *x, const eqnn_ints *index, int cols, const char *op)
{
    eqnn_ctx *c = x->ctx;
    if (index->count != x->rows) {
        eqnn__fail(c, "%s: %d indices for %d rows", op, index->count, x->rows);
        return NULL;
    }
    int *at = (int *)eqnn__arena_alloc(c, &c->step, (size_t)index->count * sizeof(int));
    for (int r = 0; at && r < index->count; r++) {
        if (index->v[r] < 0 || index->v[r] >= cols) {
            eqnn__fail(c, "%s: index %d of row %d lies outside 0..%d", op, index->v[r], r,
                       cols - 1);
            return NULL;
        }
        at[r] = r * cols + index->v[r];
    }
    return at ? eqnn_ints_make(c, index->count, at, x->rows * cols, 0) : NULL;
}

EQNN_API eqnn_tensor *eqnn_pick(eqnn_tensor *x, eqnn_ints *index)
{
    if (eqnn__bad_index(x, index, "pick") || eqnn__refuse(x, "pick", "use eqnn_slice")) return NULL;
    eqnn_ints *at = eqnn__places(x, index, x->cols, "pick");
    return at ? eqnn_take(eqnn_reshape(x, x->rows * x->cols, 1), at) : NULL;
}

EQNN_API eqnn_tensor *eqnn_put(eqnn_tensor *x, eqnn_ints *index, int cols)
{
    if (eqnn__bad_index(x, index, "put") || eqnn__refuse(x, "put", "use eqnn_concat")) return NULL;
    if (x->cols != 1)
        return eqnn__fail(x->ctx, "put: [%d,%d] must have one column", x->rows, x->cols);
    eqnn_ints *at = eqnn__places(x, index, cols, "put");
    return at ? eqnn_reshape(eqnn_collect(x, at), x->rows, cols) : NULL;
}

/* --- maxima: where they are is a constant, then one entry is picked --- */

static eqnn_ints *eqnn__argmax(eqnn_tensor *x)
{
    eqnn_ctx *c = x->ctx;
    int *at = (int *)eqnn__arena_alloc(c, &c->step, (size_t)x->rows * sizeof(int));
    for (int r = 0; at && r < x->rows; r++) {
        const eqnn_real *row = x->data + (size_t)r * (size_t)x->cols;
        at[r] = 0;
        for (int k = 1; k < x->cols; k++)
            if (row[k] > row[at[r]]) at[r] = k;
    }
    return at ? eqnn_ints_make(c, x->rows, at, x->cols, 0) : NULL;
}

EQNN_API eqnn_tensor *eqnn_max_cols(eqnn_tensor *x)
{
    if (eqnn__bad(x, "max_cols") || eqnn__refuse(x, "max_cols", "take invariants first"))
        return NULL;
    if (x->cols == 0) return eqnn__fail(x->ctx, "max_cols: no columns");
    eqnn_ints *at = eqnn__argmax(x);
    return at ? eqnn_pick(x, at) : NULL;
}

EQNN_API eqnn_tensor *eqnn_max_rows(eqnn_tensor *x)
{
    if (eqnn__bad(x, "max_rows") || eqnn__refuse(x, "max_rows", "take invariants first"))
        return NULL;
    if (x->rows == 0) return eqnn__fail(x->ctx, "max_rows: no rows");
    return eqnn_transpose(eqnn_max_cols(eqnn_transpose(x)));
}

EQNN_API eqnn_tensor *eqnn_argmax(eqnn_tensor *x)
{
    if (eqnn__bad(x, "argmax") || eqnn__refuse(x, "argmax", "take invariants first")) return NULL;
    if (x->cols == 0) return eqnn__fail(x->ctx, "argmax: no columns");
    eqnn_ints *at = eqnn__argmax(x);
    eqnn_tensor *y = at ? eqnn__new(x->ctx, x->rows, 1) : NULL;
    for (int r = 0; y && r < x->rows; r++) y->data[r] = (eqnn_real)at->v[r];
    return y;
}

EQNN_API eqnn_tensor *eqnn_segment_max(eqnn_tensor *x, eqnn_ints *segment)
{
    if (eqnn__bad_index(x, segment, "segment_max") ||
        !eqnn__collect_fits(x, segment, "segment_max"))
        return NULL;
    if (eqnn__refuse(x, "segment_max", "take invariants first")) return NULL;
    eqnn_ctx *c = x->ctx;
    size_t cols = (size_t)x->cols, n = (size_t)segment->range;
    int *at = (int *)eqnn__arena_alloc(c, &c->step, n * cols * sizeof(int));
    eqnn_tensor *full = eqnn_zeros(c, segment->range, 1);
    if (!at || !full) return NULL;
    for (size_t s = 0; s < n; s++)
        for (size_t k = 0; k < cols; k++) {
            const int *row = segment->list + segment->first[s],
                      *end = segment->list + segment->first[s + 1];
            size_t best = row < end ? (size_t)*row * cols + k : 0;
            full->data[s] = row < end ? (eqnn_real)1 : (eqnn_real)0;
            for (; row < end; row++)
                if (x->data[(size_t)*row * cols + k] > x->data[best])
                    best = (size_t)*row * cols + k;
            at[s * cols + k] = (int)best;
        }
    if (eqnn__count(x) == 0) return eqnn_zeros(c, segment->range, x->cols);
    eqnn_ints *index = eqnn_ints_make(c, (int)(n * cols), at, x->rows * x->cols, 0);
    eqnn_tensor *y = index ? eqnn_take(eqnn_reshape(x, x->rows * x->cols, 1), index) : NULL;
    return eqnn_mul(eqnn_reshape(y, segment->range, x->cols), full);
}

/* --- softmax --- */

EQNN_API eqnn_tensor *eqnn_softmax(eqnn_tensor *x)
{
    if (eqnn__bad(x, "softmax") || eqnn__refuse(x, "softmax", "take invariants first")) return NULL;
    eqnn_tensor *y = eqnn__new(x->ctx, x->rows, x->cols);
    if (!y) return NULL;
    x->ctx->k->softmax(&x->ctx->device, (size_t)x->rows, NULL, NULL, (size_t)x->cols, x->data,
                       y->data);
    eqnn__record(x->ctx, EQNN__OP_SOFTMAX, &x, 1, &y, 1);
    return y;
}

EQNN_API eqnn_tensor *eqnn_segment_softmax(eqnn_tensor *x, eqnn_ints *segment)
{
    if (eqnn__bad_index(x, segment, "segment_softmax") ||
        !eqnn__collect_fits(x, segment, "segment_softmax"))
        return NULL;
    if (eqnn__refuse(x, "segment_softmax", "take invariants first")) return NULL;
    eqnn_tensor *y = eqnn__new(x->ctx, x->rows, x->cols);
    if (!y) return NULL;
    if (segment->range)
        x->ctx->k->softmax(&x->ctx->device, (size_t)segment->range, segment->first, segment->list,
                           (size_t)x->cols, x->data, y->data);
    eqnn__node *n = eqnn__record(x->ctx, EQNN__OP_SEGMENT_SOFTMAX, &x, 1, &y, 1);
    if (n) n->aux = segment;
    return y;
}

/* log sum exp(x), shifted by the row's maximum: a constant, which cancels in the derivative */
EQNN_API eqnn_tensor *eqnn_logsumexp(eqnn_tensor *x)
{
    if (eqnn__bad(x, "logsumexp") || eqnn__refuse(x, "logsumexp", "take invariants first"))
        return NULL;
    eqnn_tensor *m = eqnn__new(x->ctx, x->rows, 1);
    if (!m) return NULL;
    x->ctx->k->fold_cols(&x->ctx->device, EQNN__MAX, (size_t)x->rows, (size_t)x->cols, x->data,
                         m->data);
    return eqnn_add(eqnn_log(eqnn_sum_cols(eqnn_exp(eqnn_sub(x, m)))), m);
}

/* --- putting together and cutting --- */

#define EQNN__MANY_BLOCKS 64

/* Label of parts side by side: their blocks one after the other; none counts as n x 0e. */
static const eqnn_label *eqnn__label_concat(eqnn_ctx *c, eqnn_tensor *const *x, int n)
{
    int total = 0, any = 0;
    for (int i = 0; i < n; i++) {
        total += x[i]->label ? x[i]->label->blocks : 1;
        any |= x[i]->label != NULL;
    }
    if (!any || c->in_rule) return NULL;
    eqnn_block few[EQNN__MANY_BLOCKS], *b = few;
    if (total > EQNN__MANY_BLOCKS)
        b = (eqnn_block *)eqnn__arena_alloc(c, &c->step, (size_t)total * sizeof *b);
    if (!b) return NULL;
    const eqnn_type *scalar = eqnn__type(c, EQNN_TYPE_IRREP, 0, 1, 1, "0e", NULL);
    int k = 0;
    for (int i = 0; i < n && scalar; i++) {
        const eqnn_label *l = x[i]->label;
        for (int j = 0; l && j < l->blocks; j++) b[k++] = l->block[j];
        if (l) continue;
        b[k].copies = x[i]->cols;
        b[k++].type = scalar;
    }
    return scalar ? eqnn__label(c, b, total) : NULL;
}

static int eqnn__concat_fits(eqnn_tensor *const *x, int n, int columns, int *total)
{
    const char *op = columns ? "concat" : "stack";
    int64_t sum = 0;
    if (n < 1 || eqnn__bad(x[0], op)) return 0;
    for (int i = 0; i < n; i++) {
        if (i > 0 && eqnn__bad2(x[0], x[i], op)) return 0;
        if (columns ? x[i]->rows != x[0]->rows : x[i]->cols != x[0]->cols) {
            eqnn__fail(x[0]->ctx, "%s: [%d,%d] and [%d,%d] do not fit", op, x[0]->rows, x[0]->cols,
                       x[i]->rows, x[i]->cols);
            return 0;
        }
        sum += columns ? x[i]->cols : x[i]->rows;
    }
    if (sum > INT_MAX) eqnn__fail(x[0]->ctx, "%s: the result is too large", op);
    *total = (int)sum;
    return sum <= INT_MAX;
}

EQNN_API eqnn_tensor *eqnn_concat_n(eqnn_tensor *const *x, int n)
{
    int cols;
    if (!eqnn__concat_fits(x, n, 1, &cols)) return NULL;
    eqnn_ctx *c = x[0]->ctx;
    eqnn_tensor *y = eqnn__new(c, x[0]->rows, cols);
    if (!y) return NULL;
    size_t first = 0;
    for (int i = 0; i < n; first += (size_t)x[i++]->cols)
        c->k->copy2d(&c->device, (size_t)y->rows, (size_t)x[i]->cols, x[i]->data,
                     (size_t)x[i]->cols, y->data + first, (size_t)cols, 0);
    y->label = eqnn__label_concat(c, x, n);
    eqnn__record(c, EQNN__OP_CONCAT, x, n, &y, 1);
    return c->failed ? NULL : y;
}

EQNN_API eqnn_tensor *eqnn_concat(eqnn_tensor *a, eqnn_tensor *b)
{
    eqnn_tensor *x[2];
    if (eqnn__bad2(a, b, "concat")) return NULL;
    x[0] = a;
    x[1] = b;
    return eqnn_concat_n(x, 2);
}

EQNN_API eqnn_tensor *eqnn_stack(eqnn_tensor *const *x, int n)
{
    int rows;
    if (!eqnn__concat_fits(x, n, 0, &rows)) return NULL;
    eqnn_ctx *c = x[0]->ctx;
    for (int i = 1; i < n && !c->in_rule; i++)
        if (!eqnn__label_same(x[0]->label, x[i]->label) &&
            !(eqnn__invariant(x[0]->label) && eqnn__invariant(x[i]->label)))
            return eqnn__fail(c, "stack: %s on top of %s", eqnn__label_text(x[0]->label),
                              eqnn__label_text(x[i]->label));
    eqnn_tensor *y = eqnn__new(c, rows, x[0]->cols);
    if (!y) return NULL;
    eqnn_real *to = y->data;
    for (int i = 0; i < n; to += eqnn__count(x[i++]))
        c->k->copy2d(&c->device, (size_t)x[i]->rows, (size_t)y->cols, x[i]->data, (size_t)y->cols,
                     to, (size_t)y->cols, 0);
    if (!c->in_rule) y->label = x[0]->label;
    eqnn__record(c, EQNN__OP_STACK, x, n, &y, 1);
    return y;
}

/* Label of columns first .. first+cols-1: 0 when they cut through a copy. Whole copies of
   one-component types may be cut out of a block. */
static int eqnn__label_slice(const eqnn_tensor *x, int first, int cols, const eqnn_label **label)
{
    eqnn_block b[EQNN__MANY_BLOCKS];
    int n = 0, end = first + cols;
    *label = NULL;
    if (!x->label || x->ctx->in_rule) return 1;
    for (int i = 0; i < x->label->blocks && n < EQNN__MANY_BLOCKS; i++) {
        const eqnn_block *k = &x->label->block[i];
        int from = k->start, to = k->start + k->copies * k->type->dim;
        if (to <= first || from >= end) continue;
        int lo = first > from ? first : from, hi = end < to ? end : to;
        if (k->type->dim > 1 && (lo != from || hi != to)) return 0;
        b[n] = *k;
        b[n++].copies = (hi - lo) / k->type->dim;
    }
    *label = eqnn__label(x->ctx, b, n);
    return *label != NULL;
}

EQNN_API eqnn_tensor *eqnn_slice(eqnn_tensor *x, int first, int cols)
{
    const eqnn_label *label;
    if (eqnn__bad(x, "slice")) return NULL;
    if (first < 0 || cols < 0 || first > x->cols - cols)
        return eqnn__fail(x->ctx, "slice: columns %d..%d of [%d,%d]", first, first + cols - 1,
                          x->rows, x->cols);
    if (!eqnn__label_slice(x, first, cols, &label))
        return eqnn__fail(x->ctx, "slice: columns %d..%d cut through a block of %s", first,
                          first + cols - 1, x->label->name);
    eqnn_tensor *y = eqnn__new(x->ctx, x->rows, cols);
    if (!y) return NULL;
    x->ctx->k->copy2d(&x->ctx->device, (size_t)x->rows, (size_t)cols, x->data + first,
                      (size_t)x->cols, y->data, (size_t)cols, 0);
    y->label = label;
    eqnn__node *n = eqnn__record(x->ctx, EQNN__OP_SLICE, &x, 1, &y, 1);
    if (n) n->i[0] = first;
    return y;
}

/* Zeros around x: the adjoint of a slice. */
static eqnn_tensor *eqnn__pad(eqnn_tensor *x, int first, int cols)
{
    if (eqnn__bad(x, "pad")) return NULL;
    eqnn_tensor *y = eqnn_zeros(x->ctx, x->rows, cols);
    if (!y) return NULL;
    x->ctx->k->copy2d(&x->ctx->device, (size_t)x->rows, (size_t)x->cols, x->data, (size_t)x->cols,
                      y->data + first, (size_t)cols, 0);
    eqnn__node *n = eqnn__record(x->ctx, EQNN__OP_PAD, &x, 1, &y, 1);
    if (n) n->i[0] = first;
    return y;
}

EQNN_API eqnn_tensor *eqnn_slice_rows(eqnn_tensor *x, int first, int rows)
{
    if (eqnn__bad(x, "slice_rows")) return NULL;
    if (first < 0 || rows < 0 || first > x->rows - rows)
        return eqnn__fail(x->ctx, "slice_rows: rows %d..%d of [%d,%d]", first, first + rows - 1,
                          x->rows, x->cols);
    eqnn_tensor *y = eqnn__new(x->ctx, rows, x->cols);
    if (!y) return NULL;
    memcpy(y->data, x->data + (size_t)first * (size_t)x->cols, eqnn__count(y) * sizeof *y->data);
    if (!x->ctx->in_rule) y->label = x->label;
    eqnn__node *n = eqnn__record(x->ctx, EQNN__OP_SLICE_ROWS, &x, 1, &y, 1);
    if (n) n->i[0] = first;
    return y;
}

static eqnn_tensor *eqnn__pad_rows(eqnn_tensor *x, int first, int rows)
{
    if (eqnn__bad(x, "pad_rows")) return NULL;
    eqnn_tensor *y = eqnn_zeros(x->ctx, rows, x->cols);
    if (!y) return NULL;
    memcpy(y->data + (size_t)first * (size_t)x->cols, x->data, eqnn__count(x) * sizeof *y->data);
    eqnn__node *n = eqnn__record(x->ctx, EQNN__OP_PAD_ROWS, &x, 1, &y, 1);
    if (n) n->i[0] = first;
    return y;
}

EQNN_API eqnn_tensor *eqnn_repeat(eqnn_tensor *x, int times)
{
    if (eqnn__bad(x, "repeat")) return NULL;
    eqnn_ctx *c = x->ctx;
    if (times < 0 || (x->rows > 0 && times > INT_MAX / x->rows))
        return eqnn__fail(c, "repeat: %d rows %d times over", x->rows, times);
    int *index = (int *)eqnn__arena_alloc(c, &c->step,
                                          (size_t)x->rows * (size_t)times * sizeof(int));
    for (int i = 0; index && i < x->rows * times; i++) index[i] = i / times;
    eqnn_ints *ints = index ? eqnn_ints_make(c, x->rows * times, index, x->rows, 0) : NULL;
    return ints ? eqnn_take(x, ints) : NULL;
}

/* --- norms, dropout, losses --- */

/* |x| of rows or of copies */
static eqnn_tensor *eqnn__norm(eqnn_tensor *x, int copies)
{
    int recording = eqnn_recording(x->ctx, 0);
    eqnn_tensor *y = eqnn_sqrt(copies ? eqnn_square_copies(x) : eqnn_sum_cols(eqnn_square(x)));
    eqnn_recording(x->ctx, recording);
    eqnn__node *n = y ? eqnn__record(x->ctx, EQNN__OP_NORM, &x, 1, &y, 1) : NULL;
    if (n) n->i[0] = copies;
    return y;
}

EQNN_API eqnn_tensor *eqnn_norm(eqnn_tensor *x)
{
    if (eqnn__bad(x, "norm")) return NULL;
    if (x->label && (x->label->copies != 1 || x->label->block[0].type->kind == EQNN_TYPE_REP) &&
        eqnn__refuse(x, "norm", "use eqnn_norm_copies of irreps"))
        return NULL;
    return eqnn__norm(eqnn_as(x, NULL), 0);
}

EQNN_API eqnn_tensor *eqnn_dropout(eqnn_tensor *x, const char *name, double p)
{
    if (eqnn__bad(x, "dropout") ||
        eqnn__refuse(x, "dropout", "whole copies must drop: use eqnn_scale_copies"))
        return NULL;
    if (!(p >= 0 && p < 1))
        return eqnn__fail(x->ctx, "dropout %s: probability %g is not in [0,1)", name, p);
    if (!x->ctx->training || p == 0) return x;
    return eqnn_mul(x, eqnn__draw(x->ctx, name, x->rows, x->cols, EQNN__MASK, p));
}

/* x - target, whatever their labels: a loss may look at components. */
static eqnn_tensor *eqnn__residual(eqnn_tensor *x, eqnn_tensor *target, const char *op)
{
    if (eqnn__bad2(x, target, op)) return NULL;
    if (x->rows != target->rows || x->cols != target->cols)
        return eqnn__fail(x->ctx, "%s: [%d,%d] against [%d,%d]", op, x->rows, x->cols, target->rows,
                          target->cols);
    return eqnn_sub(eqnn_as(x, NULL), eqnn_as(target, NULL));
}

EQNN_API eqnn_tensor *eqnn_mse(eqnn_tensor *x, eqnn_tensor *target)
{
    return eqnn_mean(eqnn_square(eqnn__residual(x, target, "mse")));
}

EQNN_API eqnn_tensor *eqnn_mae(eqnn_tensor *x, eqnn_tensor *target)
{
    return eqnn_mean(eqnn_abs(eqnn__residual(x, target, "mae")));
}

/* d^2/2 for |d| < delta, else delta (|d| - delta/2), which is m (|d| - m/2), m = min(|d|, delta) */
EQNN_API eqnn_tensor *eqnn_huber(eqnn_tensor *x, eqnn_tensor *target, double delta)
{
    eqnn_tensor *d = eqnn_abs(eqnn__residual(x, target, "huber"));
    eqnn_tensor *m = d ? eqnn_min(d, eqnn_full(d->ctx, 1, 1, delta)) : NULL;
    return eqnn_mean(eqnn_mul(m, eqnn_sub(d, eqnn_scale(m, 0.5))));
}

EQNN_API eqnn_tensor *eqnn_cross_entropy(eqnn_tensor *logits, eqnn_ints *classes)
{
    eqnn_tensor *total = eqnn_logsumexp(logits);
    return eqnn_mean(eqnn_sub(total, eqnn_pick(logits, classes)));
}

/* --- random numbers for callers --- */

EQNN_API void eqnn_random(eqnn_ctx *c, const char *name, int normal, size_t n, double *out)
{
    if (!c) return;
    uint64_t stream = eqnn__stream(eqnn__name_key(c, name), c->tick);
    for (size_t i = 0; i < n; i++)
        out[i] = normal ? eqnn__normal(stream, i) : eqnn__uniform(stream, i);
}

/* --- checkers --- */

/* sum of x times fixed random numbers: a number that sees every entry */
static eqnn_tensor *eqnn__probe(eqnn_tensor *x, const char *name)
{
    x = eqnn_as(x, NULL);
    return x ? eqnn_sum(eqnn_mul(x, eqnn_normal(x->ctx, name, x->rows, x->cols))) : NULL;
}

/* The number whose derivative is checked: the probed value (order 1), or the probed first
   derivatives with respect to all x (order 2). */
static eqnn_tensor *eqnn__probed(eqnn_function f, eqnn_tensor *const *x, int n, void *user,
                                 int order)
{
    eqnn_tensor *y = eqnn__probe(f(x, n, user), "check.value"), *sum = NULL;
    if (order == 1 || !y) return y;
    eqnn_tensor **dx = (eqnn_tensor **)eqnn__arena_alloc(y->ctx, &y->ctx->step,
                                                         (size_t)n * sizeof(void *));
    if (!dx || !eqnn_grads(y, x, n, dx)) return NULL;
    for (int i = 0; i < n; i++) {
        eqnn_tensor *part = eqnn__probe(dx[i], eqnn_format(y->ctx, "check.slope%d", i));
        sum = sum ? eqnn_add(sum, part) : part;
    }
    return sum;
}

/* (F(x + h d) - F(x - h d)) / 2h along one direction of input i */
static double eqnn__difference(eqnn_function f, eqnn_tensor *const *x, int n, void *user, int order,
                               int i, const eqnn_tensor *d, double h)
{
    eqnn_ctx *c = x[0]->ctx;
    double value[2], h_true = 0;
    eqnn_tensor **moved = (eqnn_tensor **)eqnn__arena_alloc(c, &c->step,
                                                            (size_t)n * sizeof(void *));
    for (int side = 0; moved && side < 2; side++) {
        eqnn_mark m = eqnn_mark_make(c);
        eqnn__leaves(c, x, n, moved);
        eqnn_tensor *y = eqnn__new(c, x[i]->rows, x[i]->cols);
        for (size_t k = 0; y && k < eqnn__count(y); k++)
            y->data[k] = (eqnn_real)((double)x[i]->data[k] + (side ? -h : h) * (double)d->data[k]);
        if (y) y->label = x[i]->label;
        moved[i] = y;
        value[side] = c->failed ? NAN : eqnn_value(eqnn__probed(f, moved, n, user, order));
        eqnn_rewind(m, NULL);
        h_true += h;
    }
    return moved ? (value[0] - value[1]) / h_true : NAN;
}

static double eqnn__length(const eqnn_tensor *x)
{
    double s = 0;
    for (size_t i = 0; i < eqnn__count(x); i++) s += (double)x->data[i] * (double)x->data[i];
    return sqrt(s);
}

/* One order: slopes by the tape against differences, relative to the size of the gradient. */
static double eqnn__check_order(eqnn_function f, eqnn_tensor *const *x, int n, void *user,
                                int order, double h)
{
    eqnn_ctx *c = x[0]->ctx;
    double worst = 0;
    eqnn_tensor **dx = (eqnn_tensor **)eqnn__arena_alloc(c, &c->step,
                                                         2 * (size_t)n * sizeof(void *));
    if (!dx || !eqnn__leaves(c, x, n, dx + n)) return NAN;
    eqnn_tensor *F = eqnn__probed(f, dx + n, n, user, order);
    if (!eqnn_grads(F, dx + n, n, dx)) return NAN;
    double size = fabs(eqnn_value(F));
    for (int i = 0; i < n; i++) {
        eqnn_tensor *d = eqnn_normal(c, eqnn_format(c, "check.direction%d", i), x[i]->rows,
                                     x[i]->cols);
        if (!d || !eqnn__count(d)) continue;
        double slope = 0, length = eqnn__length(d), g = eqnn__length(dx[i]);
        for (size_t k = 0; k < eqnn__count(d); k++) {
            d->data[k] = (eqnn_real)((double)d->data[k] / length);
            slope += (double)d->data[k] * (double)dx[i]->data[k];
        }
        double scale = g > 0.01 * size ? g : 0.01 * size;
        double error = fabs(slope - eqnn__difference(f, x, n, user, order, i, d, h)) /
                       (scale > 1e-30 ? scale : 1);
        if (!(error <= worst)) worst = error;
    }
    return c->failed ? NAN : worst;
}

EQNN_API double eqnn_check_derivatives(eqnn_function f, eqnn_tensor *const *x, int n, void *user,
                                       int order, double h)
{
    double worst = 0;
    if (n < 1 || eqnn__bad(x[0], "check_derivatives")) return NAN;
    if (h <= 0) h = sizeof(eqnn_real) == 8 ? 1e-5 : 5e-3;
    for (int k = 1; k <= order && k <= 2; k++) {
        double e = eqnn__check_order(f, x, n, user, k, h);
        if (!(e <= worst)) worst = e;
    }
    return worst;
}

/* ---- forms on the tape ----

   A node holds a multilinear form L of its slots v. Without tangents its outputs are

       dL/dv_s                                     for every slot s wanted

   and with tangents t (of some slots)

       sum over a != s of d2L/(dv_s dv_a) t_a      for every slot s wanted.

   L has degree one in every slot, so d2L/(dv_s dv_a) t_a is dL/dv_s with t_a in the place of v_a:
   written L_s[a:t_a]. Let c_s be the cotangents of the outputs. Without tangents the gradient for
   v_b is sum over s != b of L_b[s:c_s]: the second kind, with tangents c. With tangents,

       S = sum over s != a of L[s:c_s][a:t_a]      is what the outputs add up to, and
       dS/dt_a = sum over s != a of L_a[s:c_s]                 the second kind, tangents c
       dS/dv_b = sum over a != b, s != a, b of L_b[a:t_a][s:c_s]

   where the last is, for every a, the second kind with v_a replaced by t_a and tangents c without
   c_a. The two kinds are closed: any order of derivative. */

typedef struct eqnn__form_node {
    eqnn__form form;
    unsigned value, tangent, want; /* slots that are inputs, have a tangent, are outputs */
} eqnn__form_node;

/* Slots whose values the outputs depend on. */
static unsigned eqnn__form_needed(const eqnn__form *f, eqnn_tensor *const t[], unsigned want)
{
    unsigned needed = 0;
    for (int s = 0; s < f->slots; s++)
        for (int w = 0; w < f->slots; w++) {
            if (s == w || f->cols[s] <= 0 || !(want >> w & 1)) continue;
            if (!t) needed |= 1u << s;
            for (int a = 0; a < f->slots && t; a++)
                if (t[a] && a != s && a != w) needed |= 1u << s;
        }
    return needed;
}

/* Inputs of the node: the values needed, then the tangents, each in the order of the slots. */
static void eqnn__form_record(eqnn_ctx *c, const eqnn__form *f, eqnn_tensor *const v[],
                              eqnn_tensor *const t[], unsigned needed, unsigned want,
                              eqnn_tensor *out[])
{
    eqnn_tensor *in[2 * EQNN__SLOTS], *o[EQNN__SLOTS];
    int n = 0, m = 0;
    unsigned tangent = 0;
    for (int s = 0; s < f->slots; s++)
        if (needed >> s & 1) in[n++] = v[s];
    for (int s = 0; s < f->slots && t; s++)
        if (t[s]) in[n++] = t[s], tangent |= 1u << s;
    for (int s = 0; s < f->slots; s++)
        if (want >> s & 1) o[m++] = out[s];
    eqnn__node *node = eqnn__record(c, EQNN__OP_FORM, in, n, o, m);
    if (!node) return;
    eqnn__form_node *aux = (eqnn__form_node *)eqnn__step_alloc(c, sizeof *aux);
    node->aux = aux;
    if (!aux) return;
    aux->form = *f;
    aux->value = needed, aux->tangent = tangent, aux->want = want;
}

/* The form's gradients (t NULL) or their tangents; out[s] is set for the slots in want, else
   NULL. */
static void eqnn__form_apply(eqnn_ctx *c, const eqnn__form *f, eqnn_tensor *const v[],
                             eqnn_tensor *const t[], unsigned want, eqnn_tensor *out[])
{
    const eqnn_real *value[EQNN__SLOTS], *tangent[EQNN__SLOTS];
    eqnn_real *to[EQNN__SLOTS];
    unsigned needed = eqnn__form_needed(f, t, want);
    for (int s = 0; s < EQNN__SLOTS; s++) out[s] = NULL, to[s] = NULL, value[s] = tangent[s] = NULL;
    if (c->failed) return;
    for (int s = 0; s < f->slots; s++) {
        eqnn_tensor *x = needed >> s & 1 ? v[s] : t ? t[s] : NULL;
        if ((needed >> s & 1 && !v[s]) ||
            (x && (x->rows != f->rows[s] || x->cols != f->cols[s]))) {
            eqnn__fail(c, "%s: slot %d of a form needs [%d,%d], got [%d,%d]",
                       c->op ? c->op : "form", s, f->rows[s], f->cols[s], eqnn_rows(x),
                       eqnn_cols(x));
            return;
        }
        value[s] = needed >> s & 1 ? v[s]->data : NULL;
        tangent[s] = t && t[s] ? t[s]->data : NULL;
        if (!(want >> s & 1)) continue;
        out[s] = eqnn__new(c, f->rows[s], f->cols[s]);
        if (!out[s]) break;
        to[s] = out[s]->data;
    }
    eqnn__scratch_mark mark =
        eqnn__scratch_begin(c, eqnn__form_scratch(f, want, t != NULL, c->device.threads));
    if (!c->failed) c->k->form(&c->device, f, value, t ? tangent : NULL, to);
    eqnn__scratch_end(c, mark);
    for (int s = 0; s < f->slots && c->failed; s++) out[s] = NULL;
    if (!c->failed) eqnn__form_record(c, f, v, t, needed, want, out);
}

/* The form after a direction took the place of a slot's value. In a coupling where some paths have
   no weights, L has degree one in h and V only where weights are: the other paths fall out. */
static eqnn__form eqnn__form_put(const eqnn__form *f, int slot)
{
    eqnn__form g = *f;
    if (f->kind == EQNN__COUPLE && (slot == 2 || slot == 3)) g.weighted = 1;
    return g;
}

/* The second kind with tangents t, in its simplest form: a single tangent takes the place of its
   slot's value (that slot's own output is then zero: out stays NULL). */
static void eqnn__form_second(eqnn_ctx *c, const eqnn__form *f, eqnn_tensor *const v[],
                              eqnn_tensor *const t[], unsigned want, eqnn_tensor *out[])
{
    eqnn_tensor *u[EQNN__SLOTS];
    int count = 0, only = 0;
    for (int s = 0; s < EQNN__SLOTS; s++) u[s] = v[s], out[s] = NULL;
    for (int s = 0; s < f->slots; s++)
        if (t[s]) only = s, count++;
    if (count == 1) {
        eqnn__form g = eqnn__form_put(f, only);
        u[only] = t[only];
        want &= ~(1u << only);
        if (want) eqnn__form_apply(c, &g, u, NULL, want, out);
    } else if (count && want) {
        eqnn__form_apply(c, f, u, t, want, out);
    }
}

/* Slots and tensors of a node, taken apart; `wanted` gets the slots whose values want a
   gradient. */
static unsigned eqnn__form_inputs(eqnn__sweep *s, const eqnn__node *n, unsigned mask, int *at,
                                  eqnn_tensor *v[])
{
    unsigned wanted = 0;
    for (int i = 0; i < EQNN__SLOTS; i++) {
        v[i] = NULL;
        if (!(mask >> i & 1)) continue;
        if (eqnn__wants(s, n, *at)) wanted |= 1u << i;
        v[i] = n->in[(*at)++];
    }
    return wanted;
}

static void eqnn__form_give(eqnn__sweep *s, const eqnn__node *n, unsigned mask, int at,
                            eqnn_tensor *g[])
{
    for (int i = 0; i < EQNN__SLOTS; i++)
        if (mask >> i & 1) eqnn__give(s, n, at++, g[i]);
}

static void eqnn__form_rule(eqnn__sweep *s, const eqnn__node *n)
{
    const eqnn__form_node *a = (const eqnn__form_node *)n->aux;
    eqnn_tensor *v[EQNN__SLOTS], *t[EQNN__SLOTS], *c[EQNN__SLOTS], *out[EQNN__SLOTS];
    int at = 0, output = 0;
    unsigned base = eqnn__form_inputs(s, n, a->value, &at, v);
    int tangents = at;
    unsigned along = eqnn__form_inputs(s, n, a->tangent, &at, t);
    for (int i = 0; i < EQNN__SLOTS; i++)
        c[i] = a->want >> i & 1 ? eqnn__cotangent(s, n, output++) : NULL;
    if (!a->tangent) {
        eqnn__form_second(s->c, &a->form, v, c, base, out);
        eqnn__form_give(s, n, a->value, 0, out);
        return;
    }
    if (along) {
        eqnn__form_second(s->c, &a->form, v, c, along, out);
        eqnn__form_give(s, n, a->tangent, tangents, out);
    }
    for (int i = 0; i < EQNN__SLOTS; i++) {
        if (!t[i] || !(base & ~(1u << i))) continue;
        eqnn_tensor *u[EQNN__SLOTS], *d[EQNN__SLOTS];
        for (int k = 0; k < EQNN__SLOTS; k++)
            u[k] = k == i ? t[k] : v[k], d[k] = k == i ? NULL : c[k];
        eqnn__form g = eqnn__form_put(&a->form, i);
        eqnn__form_second(s->c, &g, u, d, base & ~(1u << i), out);
        eqnn__form_give(s, n, a->value, 0, out);
    }
}

/* Code that runs once per layer, model or file: as a debugger likes it, and soon compiled. */
#ifdef EQNN__QUICK
#pragma GCC push_options
#pragma GCC optimize("Og")
#endif

/* ----------------------------------------------------------------------------------------------
   7 >>parameters
   ---------------------------------------------------------------------------------------------- */

#include <errno.h>
#if defined(__unix__) || defined(__APPLE__)
#include <unistd.h>
#endif
#if defined(_WIN32)
#include <io.h>
#endif

static void eqnn__weight_gradient_add(eqnn_tensor *w, eqnn_tensor *g);
static int eqnn__weight_trainable(const eqnn_tensor *w);

/* Parameters lie in slabs that never move, so a tensor's pointer is good for the context's life. A
   new slab holds at least half of what exists, so there are few. Gradient and the optimizers'
   memories have the layout of the slab and come when they are first needed:

       value     | weight .. | bias .. | weight ..        | free |
       gradient  |  same places                                  |
       state[k]  |  same places: Adam's m and v, SGD's velocity, the moving average  |

   Every parameter starts on a multiple of 16 numbers; the gaps are zero and stay zero. */
enum { EQNN__MEAN, EQNN__SQUARE, EQNN__VELOCITY, EQNN__AVERAGE, EQNN__STATES };
static const char *const eqnn__state_names[EQNN__STATES] = { "eqnn.adam.m.", "eqnn.adam.v.",
                                                             "eqnn.sgd.momentum.",
                                                             "eqnn.average." };
enum { EQNN__BY_ADAM, EQNN__BY_SGD, EQNN__OPTIMIZERS };
static const char *const eqnn__optimizer_names[EQNN__OPTIMIZERS] = { "adam", "sgd" };

typedef struct eqnn__slab {
    eqnn_real *value, *gradient, *state[EQNN__STATES];
    size_t size, used; /* numbers                   */
    int buffer;        /* of buffers: never trained */
} eqnn__slab;

struct eqnn__weight {
    const char *name;             /* in full: "conv1.weight"                                  */
    uint64_t hash;                /* of it                                                    */
    struct eqnn__weight *next;    /* in the same bin                                          */
    struct eqnn__weight *master;  /* in a worker: the owner's                                 */
    eqnn_tensor *tensor;
    int rows, cols, buffer;
    int slab;
    size_t offset;                /* numbers from the slab's start                            */
    int frozen;
    double rate;                    /* factor on the optimizer's           */
    int used, used_before;          /* calls in this step; in the last     */
    int loaded;                     /* filled from a file                  */
    int64_t born[EQNN__OPTIMIZERS]; /* optimizer steps done before it came */
};
typedef struct eqnn__weight eqnn__weight;

typedef struct eqnn__filed { eqnn__weight *buffer; double momentum; size_t offset; } eqnn__filed;
/* What a pattern says: kind 0 frozen, 1 rate, 2 a prefix that is open. */
typedef struct eqnn__pattern {
    struct eqnn__pattern *next;
    int kind;
    double value;
    char *text;
} eqnn__pattern;
typedef struct eqnn__note { struct eqnn__note *next; char *key, *text; } eqnn__note;
typedef struct eqnn__load {
    struct eqnn__load *next; /* the one before */
    eqnn_file *file;
    unsigned char *claimed;  /* a flag per entry */
    char *prefix;
    int partial, weights_only, optimizer; /* optimizer: the file has steps of one */
} eqnn__load;

struct eqnn__params {
    eqnn__weight **bin;
    size_t bins;
    eqnn__weight **all, **trained;  /* in order of creation: with and without buffers */
    int count, room, trained_count, trained_room;
    eqnn__slab *slab;
    int slabs, slab_room;
    int closed;                     /* names: since the first optimizer step          */
    uint64_t version;               /* grows whenever numbers of parameters change    */
    eqnn__filed *filed;
    int updates, filed_room;
    eqnn_real *pending;             /* the values of filed updates                    */
    size_t pending_used, pending_room;
    eqnn__pattern *patterns;
    eqnn__note *notes;
    eqnn__load *loads;
    int strict, lenient;            /* a load was to be complete; one was not         */
    int64_t steps[EQNN__OPTIMIZERS];
    int resumed[EQNN__OPTIMIZERS];  /* loaded before the optimizer was made           */
    void *optimizer[EQNN__OPTIMIZERS];
    int averaging;                  /* averaged weights are in use                    */
    eqnn_allreduce allreduce;
    void *allreduce_user;
};

static struct eqnn__params *eqnn__params_get(eqnn_ctx *c)
{
    if (!c->params) c->params = (struct eqnn__params *)eqnn__keep_alloc(c, sizeof *c->params);
    return c->params;
}

/* Room for one more in a table that doubles; 0 and an error when there is none. */
static int eqnn__grow(eqnn_ctx *c, void **table, int count, int *room, size_t item)
{
    if (count < *room) return 1;
    int more = *room ? 2 * *room : 16;
    if (*room > INT_MAX / 2 || (size_t)more > SIZE_MAX / item) {
        eqnn__fail(c, "%s: a table of %d is full", c->op, *room);
        return 0;
    }
    void *p = eqnn__heap(c, *table, (size_t)*room * item, (size_t)more * item);
    if (!p) return 0;
    *table = p;
    *room = more;
    return 1;
}

static char *eqnn__heap_string(eqnn_ctx *c, const char *s)
{
    size_t n = strlen(s) + 1;
    char *p = (char *)eqnn__heap(c, NULL, 0, n);
    if (p) memcpy(p, s, n);
    return p;
}

static void eqnn__heap_string_free(eqnn_ctx *c, char *s)
{
    if (s) eqnn__try_heap(c, s, strlen(s) + 1, 0);
}

/* --- scopes --- */

/* Level d of the scope is the first scope_length[d] characters of c->scope; its hash is kept, so
   that a name is found by hashing its last word only. */
static int eqnn__scope_push(eqnn_ctx *c, const char *name)
{
    if (!name) {
        eqnn__fail(c, "enter: a layer in \"%s\" has no name (NULL); \"\" adds none", c->scope);
        return 0;
    }
    int d = c->scope_depth;
    size_t at = d ? (size_t)c->scope_length[d] : 0, n = strlen(name), more = n ? n + 1 : 0;
    if (d >= 32 || at + more + 1 > sizeof c->scope) {
        eqnn__fail(c, "enter: \"%.80s\" in \"%.300s\": more than 32 scopes or %d characters", name,
                   c->scope, (int)sizeof c->scope - 1);
        return 0;
    }
    memcpy(c->scope + at, name, n);
    if (n) c->scope[at + n] = '.';
    c->scope[at + more] = 0;
    c->scope_hash[d + 1] = eqnn__hash(d ? c->scope_hash[d] : EQNN__HASH, c->scope + at, more);
    c->scope_length[d + 1] = (int)(at + more);
    c->scope_depth = d + 1;
    return 1;
}

static void eqnn__scope_pop(eqnn_ctx *c)
{
    if (c->scope_depth > 0) c->scope_depth--;
    c->scope[c->scope_depth ? c->scope_length[c->scope_depth] : 0] = 0;
}

EQNN_API eqnn_tensor *eqnn_enter(eqnn_tensor *x, const char *name)
{
    if (eqnn__bad(x, "enter")) return NULL;
    return eqnn__scope_push(x->ctx, name) ? x : NULL;
}

EQNN_API eqnn_tensor *eqnn_leave(eqnn_tensor *y)
{
    if (eqnn__bad(y, "leave")) return NULL;
    eqnn__scope_pop(y->ctx);
    return y;
}

/* --- what is made of parameters --- */

typedef struct eqnn__once {
    uint64_t key, version; /* of scope and name; of the parameters when it was made */
    int recorded;
    eqnn_tensor *y;        /* NULL: not made in this step                           */
    struct eqnn__once *next;
} eqnn__once;

/* Forgets what is gone with the step, or with a rewind. */
static void eqnn__onces_drop(eqnn_ctx *c)
{
    for (eqnn__once *o = c->onces; o; o = o->next)
        if (o->y && o->y->state != EQNN__ALIVE) o->y = NULL;
}

/* Blocks with a tape of their own (checkpoints) make theirs, so that their gradients find the
   parameters. */
EQNN_API eqnn_tensor *eqnn_once(eqnn_ctx *c, const char *name, eqnn_maker f, const void *user)
{
    if (!c || c->failed) return NULL;
    if (c->own_tape || c->in_rule || c->recycler) return f(c, user);
    int d = c->scope_depth;
    uint64_t key = eqnn__hash(d ? c->scope_hash[d] : EQNN__HASH, name, strlen(name)), version;
    eqnn__once *o = c->onces;
    while (o && o->key != key) o = o->next;
    version = c->owner->params ? c->owner->params->version : 0;
    if (o && o->y && o->version == version && o->recorded >= c->recording) return o->y;
    if (!o && (o = (eqnn__once *)eqnn__keep_alloc(c, sizeof *o)) != NULL) {
        o->key = key;
        o->next = c->onces;
        c->onces = o;
    }
    if (!o) return NULL;
    o->y = f(c, user); /* may make parameters */
    o->version = c->owner->params ? c->owner->params->version : 0;
    o->recorded = c->recording;
    return o->y;
}

/* --- names and patterns --- */

/* Bytes of the UTF-8 character at s, or 0 (RFC 3629: no overlong forms, no surrogates). */
static int eqnn__utf8(const unsigned char *s, size_t n)
{
    static const uint32_t least[5] = { 0, 0, 0x80, 0x800, 0x10000 };
    int k = s[0] < 0x80 ? 1 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
    if (s[0] >= 0x80 && (s[0] < 0xc2 || s[0] > 0xf4)) return 0;
    if (k < 2 || (size_t)k > n) return k == 1;
    uint32_t u = s[0] & (0x7fu >> k);
    for (int i = 1; i < k; i++) {
        if ((s[i] & 0xc0) != 0x80) return 0;
        u = u << 6 | (s[i] & 0x3fu);
    }
    return u >= least[k] && u <= 0x10ffff && (u < 0xd800 || u > 0xdfff) ? k : 0;
}

static int eqnn__text_valid(const char *s)
{
    const unsigned char *u = (const unsigned char *)s;
    for (size_t n = strlen(s), k; n > 0; u += k, n -= k) {
        k = (size_t)eqnn__utf8(u, n);
        if (!k) return 0;
    }
    return 1;
}

/* Does the pattern fit the whole name? '*' stands for any run of characters. When what follows a
   star does not fit, the star takes one character more. */
static int eqnn__fits(const char *pattern, const char *name)
{
    const char *star = NULL, *from = NULL;
    for (;;) {
        if (*pattern == '*') {
            star = ++pattern;
            from = name;
        } else if (*pattern == *name) {
            if (!*name) return 1;
            pattern++;
            name++;
        } else if (star && *from) {
            pattern = star;
            name = ++from;
        } else {
            return 0;
        }
    }
}

static void eqnn__pattern_apply(eqnn__weight *w, const eqnn__pattern *q)
{
    if (q->kind == 0) w->frozen = q->value != 0;
    if (q->kind == 1) w->rate = q->value;
}

/* The oldest first, so that later patterns win. */
static void eqnn__patterns_apply(eqnn__weight *w, const eqnn__pattern *q)
{
    if (!q) return;
    eqnn__patterns_apply(w, q->next);
    if (q->kind != 2 && eqnn__fits(q->text, w->name)) eqnn__pattern_apply(w, q);
}

/* Makes a pattern the newest, so that saying it again costs nothing more. */
static eqnn__pattern *eqnn__pattern_add(eqnn_ctx *c, int kind, const char *text, double value)
{
    struct eqnn__params *p = eqnn__params_get(c);
    if (!p) return NULL;
    eqnn__pattern **at = &p->patterns, *q;
    while (*at && ((*at)->kind != kind || strcmp((*at)->text, text))) at = &(*at)->next;
    q = *at;
    if (q) *at = q->next;
    else q = (eqnn__pattern *)eqnn__keep_alloc(c, sizeof *q);
    if (q && !q->text) q->text = eqnn__keep_string(c, text);
    if (!q || !q->text) return NULL;
    q->kind = kind;
    q->value = value;
    q->next = p->patterns;
    return p->patterns = q;
}

static int eqnn__is_open(const struct eqnn__params *p, const char *name)
{
    for (const eqnn__pattern *q = p->patterns; q; q = q->next)
        if (q->kind == 2 && !strncmp(name, q->text, strlen(q->text))) return 1;
    return 0;
}

/* --- slabs --- */

static size_t eqnn__weight_count(const eqnn__weight *w)
{
    return (size_t)w->rows * (size_t)w->cols;
}

static eqnn_real *eqnn__slab_array(eqnn_ctx *c, const eqnn__slab *s)
{
    return (eqnn_real *)eqnn__keep_alloc(c, s->size * sizeof(eqnn_real));
}

static int eqnn__slab_add(eqnn_ctx *c, int buffer, size_t need)
{
    struct eqnn__params *p = c->params;
    size_t size = 4096;
    eqnn__slab s;
    void *table = p->slab;
    for (int i = 0; i < p->slabs; i++)
        if (p->slab[i].buffer == buffer) size += p->slab[i].size / 2;
    memset(&s, 0, sizeof s);
    s.buffer = buffer;
    s.size = size > need ? size : need;
    s.value = eqnn__slab_array(c, &s);
    if (!s.value || !eqnn__grow(c, &table, p->slabs, &p->slab_room, sizeof s)) return 0;
    p->slab = (eqnn__slab *)table;
    p->slab[p->slabs++] = s;
    return 1;
}

/* Gives w its place: in the newest slab of its kind, or in a new one. */
static int eqnn__slab_place(eqnn_ctx *c, eqnn__weight *w)
{
    struct eqnn__params *p = c->params;
    size_t need = (eqnn__weight_count(w) + 15) / 16 * 16;
    int at = p->slabs - 1;
    while (at >= 0 && p->slab[at].buffer != w->buffer) at--;
    if (at < 0 || need > p->slab[at].size - p->slab[at].used) {
        if (!eqnn__slab_add(c, w->buffer, need)) return 0;
        at = p->slabs - 1;
    }
    w->slab = at;
    w->offset = p->slab[at].used;
    p->slab[at].used += need;
    return 1;
}

/* The gradient's slab of this context (a worker's has the owner's layout); NULL and an error. */
static eqnn_real *eqnn__slab_gradient(eqnn_ctx *c, int at)
{
    struct eqnn__params *p = eqnn__params_get(c), *owner = c->owner->params;
    while (p && p != owner && p->slabs <= at) {
        void *table = p->slab;
        if (!eqnn__grow(c, &table, p->slabs, &p->slab_room, sizeof *p->slab)) return NULL;
        p->slab = (eqnn__slab *)table;
        memset(&p->slab[p->slabs], 0, sizeof *p->slab);
        p->slab[p->slabs].size = owner->slab[p->slabs].size;
        p->slab[p->slabs].buffer = owner->slab[p->slabs].buffer;
        p->slabs++;
    }
    if (p && !p->slab[at].gradient) p->slab[at].gradient = eqnn__slab_array(c, &p->slab[at]);
    return p ? p->slab[at].gradient : NULL;
}

/* An optimizer's memory of every slab: zeros; the average starts as the weights are. */
static int eqnn__slab_state(eqnn_ctx *c, int at, int state)
{
    eqnn__slab *s = &c->params->slab[at];
    if (s->buffer || s->state[state]) return 1;
    s->state[state] = eqnn__slab_array(c, s);
    if (!s->state[state]) return 0;
    if (state == EQNN__AVERAGE) memcpy(s->state[state], s->value, s->used * sizeof *s->value);
    return 1;
}

/* --- first numbers --- */

/* The bounds that PyTorch and JAX use, from the numbers of inputs and outputs of the layer. */
static double eqnn__init_size(const eqnn_init *o, int rows, int cols)
{
    double scale = o->scale != 0 ? o->scale : 1;
    double in = o->fan_in > 0 ? o->fan_in : cols > 0 ? cols : 1;
    double out = o->fan_out > 0 ? o->fan_out : rows > 0 ? rows : 1;
    switch (o->kind) {
    case EQNN_INIT_TORCH: return scale / sqrt(in);
    case EQNN_INIT_GLOROT_UNIFORM: return scale * sqrt(6 / (in + out));
    case EQNN_INIT_GLOROT_NORMAL: return scale * sqrt(2 / (in + out));
    case EQNN_INIT_HE_UNIFORM: return scale * sqrt(6 / in);
    case EQNN_INIT_HE_NORMAL: return scale * sqrt(2 / in);
    case EQNN_INIT_LECUN_NORMAL: return scale * sqrt(1 / in) / 0.87962566103423978; /* [1] */
    case EQNN_INIT_NORMAL: case EQNN_INIT_UNIFORM: case EQNN_INIT_ORTHOGONAL: return scale;
    default: return 1;
    }
}
/* [1] the standard deviation of N(0,1) cut off at -2 and 2 */

/* x with P(N(0,1) < x | -2 < N < 2) = u: Newton's method on the error function, which is smooth and
   steep enough there for a few steps from a straight line. */
static double eqnn__truncated_normal(double u)
{
    double low = 0.5 * erfc(2 / sqrt(2.0)), p = low + u * (1 - 2 * low), x = (p - 0.5) * 2;
    for (int i = 0; i < 40; i++) {
        double step = (0.5 * erfc(-x / sqrt(2.0)) - p) * eqnn__exp(x * x / 2);
        step *= sqrt(2 * EQNN__PI);
        x -= step > 0.5 ? 0.5 : step < -0.5 ? -0.5 : step;
        if (fabs(step) < 1e-15) break;
    }
    return x < -2 ? -2 : x > 2 ? 2 : x;
}

/* Makes the n rows of a [n,m], n <= m, orthonormal: Gram-Schmidt, done twice for full accuracy. */
static void eqnn__orthonormal(double *a, int n, int m)
{
    for (int i = 0; i < n; i++) {
        double *v = a + (size_t)i * (size_t)m, norm = 0;
        for (int pass = 0; pass < 2; pass++)
            for (int j = 0; j < i; j++) {
                const double *w = a + (size_t)j * (size_t)m;
                double dot = 0;
                for (int k = 0; k < m; k++) dot += v[k] * w[k];
                for (int k = 0; k < m; k++) v[k] -= dot * w[k];
            }
        for (int k = 0; k < m; k++) norm += v[k] * v[k];
        for (int k = 0; k < m; k++) v[k] /= norm > 0 ? sqrt(norm) : 1;
    }
}

/* Random [rows,cols] with orthonormal rows or columns, whichever are fewer (Saxe et al. 2013). */
static int eqnn__init_orthogonal(eqnn_ctx *c, eqnn_real *x, int rows, int cols, double scale)
{
    int flip = rows > cols, n = flip ? cols : rows, m = flip ? rows : cols;
    size_t size = (size_t)rows * (size_t)cols;
    if (!size) return 1;
    double *a = (double *)eqnn__heap(c, NULL, 0, size * sizeof *a);
    if (!a) return 0;
    for (size_t i = 0; i < size; i++) a[i] = (double)x[i];
    eqnn__orthonormal(a, n, m);
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < cols; j++) {
            size_t at =
                flip ? (size_t)j * (size_t)m + (size_t)i : (size_t)i * (size_t)m + (size_t)j;
            x[(size_t)i * (size_t)cols + (size_t)j] = (eqnn_real)(scale * a[at]);
        }
    eqnn__heap(c, a, size * sizeof *a, 0);
    return 1;
}

/* Fills x from the stream of its full name: the tick does not matter, nor what was made before. */
static int eqnn__init_fill(eqnn_ctx *c, eqnn_real *x, int rows, int cols, const eqnn_init *o,
                           uint64_t key)
{
    size_t n = (size_t)rows * (size_t)cols;
    double size = eqnn__init_size(o, rows, cols);
    int uniform = o->kind == EQNN_INIT_UNIFORM || o->kind == EQNN_INIT_TORCH ||
                  o->kind == EQNN_INIT_GLOROT_UNIFORM || o->kind == EQNN_INIT_HE_UNIFORM;
    if (o->kind == EQNN_INIT_ZEROS || o->kind == EQNN_INIT_ONES) {
        double one = o->scale < 0 || o->scale > 0 ? o->scale : 1;
        for (size_t i = 0; i < n; i++) x[i] = (eqnn_real)(o->kind == EQNN_INIT_ONES ? one : 0);
        return 1;
    }
    int flat = uniform || o->kind == EQNN_INIT_LECUN_NORMAL;
    c->k->random(&c->device, flat ? EQNN__UNIFORM : EQNN__NORMAL, key, 0, n, 0, x);
    if (o->kind == EQNN_INIT_ORTHOGONAL) return eqnn__init_orthogonal(c, x, rows, cols, size);
    for (size_t i = 0; i < n; i++) {
        double u = (double)x[i];
        x[i] = (eqnn_real)(size * (uniform ? 2 * u - 1 : flat ? eqnn__truncated_normal(u) : u));
    }
    return 1;
}

/* --- the table of names --- */

static eqnn__weight *eqnn__weight_find(const struct eqnn__params *p, uint64_t hash,
                                       const char *scope, size_t length, const char *name)
{
    if (!p || !p->bins) return NULL;
    eqnn__weight *w = p->bin[(hash ^ hash >> 32) & (p->bins - 1)];
    while (w &&
           (w->hash != hash || strncmp(w->name, scope, length) || strcmp(w->name + length, name)))
        w = w->next;
    return w;
}

static eqnn__weight *eqnn__weight_named(const struct eqnn__params *p, const char *full)
{
    return eqnn__weight_find(p, eqnn__hash(EQNN__HASH, full, strlen(full)), "", 0, full);
}

static void eqnn__bin_add(struct eqnn__params *p, eqnn__weight *w)
{
    eqnn__weight **bin = &p->bin[(w->hash ^ w->hash >> 32) & (p->bins - 1)];
    w->next = *bin;
    *bin = w;
}

/* Twice as many bins, as soon as there are more names than bins. */
static int eqnn__bins_grow(eqnn_ctx *c)
{
    struct eqnn__params *p = c->params;
    size_t bins = p->bins ? 2 * p->bins : 64;
    if ((size_t)p->count < p->bins) return 1;
    void *table = eqnn__heap(c, NULL, 0, bins * sizeof *p->bin);
    if (!table) return 0;
    if (p->bin) eqnn__heap(c, p->bin, p->bins * sizeof *p->bin, 0);
    p->bin = (eqnn__weight **)table;
    p->bins = bins;
    memset(p->bin, 0, bins * sizeof *p->bin);
    for (int i = 0; i < p->count; i++) eqnn__bin_add(p, p->all[i]);
    return 1;
}

/* Enters w into the table and the lists. */
static int eqnn__weight_list(eqnn_ctx *c, eqnn__weight *w)
{
    struct eqnn__params *p = c->params;
    void *all = p->all, *trained = p->trained;
    if (!eqnn__bins_grow(c) || !eqnn__grow(c, &all, p->count, &p->room, sizeof w)) return 0;
    p->all = (eqnn__weight **)all;
    if (!eqnn__grow(c, &trained, p->trained_count, &p->trained_room, sizeof w)) return 0;
    p->trained = (eqnn__weight **)trained;
    p->all[p->count++] = w;
    if (!w->buffer) p->trained[p->trained_count++] = w;
    eqnn__bin_add(p, w);
    return 1;
}

/* A tensor that lasts over numbers that exist. */
static eqnn_tensor *eqnn__weight_tensor(eqnn_ctx *c, eqnn__weight *w, eqnn_real *data)
{
    eqnn_tensor *x = eqnn__new_kept(c, 0, w->cols);
    if (!x) return NULL;
    x->data = data;
    x->rows = w->rows;
    x->weight = w;
    return x;
}

/* May the full name come into being now? 0 and an error if not. */
static int eqnn__name_allowed(eqnn_ctx *c, const char *full)
{
    const struct eqnn__params *p = c->params;
    if (!*full || !strncmp(full, "eqnn.", 5) || !strcmp(full, "__metadata__"))
        eqnn__fail(c, "%s: the name \"%s\" is reserved", c->op, full);
    else if (!eqnn__text_valid(full))
        eqnn__fail(c, "%s: the name \"%s\" is not UTF-8", c->op, full);
    else if (p->closed && !eqnn__is_open(p, full))
        eqnn__fail(
            c,
            "%s: %s is new after the first optimizer step: a typing mistake? (eqnn_open lets "
            "names under a prefix appear later)",
            c->op, full);
    return !c->failed;
}

static char *eqnn__name_join(eqnn_ctx *c, const char *scope, const char *name)
{
    size_t a = strlen(scope), b = strlen(name);
    if (a + b > 999) {
        eqnn__fail(c, "%s: the name \"%.80s...\" is longer than 999 characters", c->op, name);
        return NULL;
    }
    char *full = (char *)eqnn__keep_alloc(c, a + b + 1);
    if (!full) return NULL;
    memcpy(full, scope, a);
    memcpy(full + a, name, b);
    return full;
}

/* A worker's stand-in for a weight of the owner: the same numbers, its own tensor and gradient. */
static eqnn__weight *eqnn__weight_mirror(eqnn_ctx *c, eqnn__weight *master)
{
    eqnn__weight *w = (eqnn__weight *)eqnn__keep_alloc(c, sizeof *w);
    if (!w || !eqnn__params_get(c)) return NULL;
    *w = *master;
    w->master = master;
    w->next = NULL;
    w->used = w->used_before = 0;
    w->tensor = eqnn__weight_tensor(c, w, master->tensor->data);
    return w->tensor && eqnn__weight_list(c, w) ? w : NULL;
}

static int eqnn__weight_claim(eqnn_ctx *c, eqnn__weight *w, eqnn__load *only);

/* Places w, gives it its first numbers, and then those of a loaded file. */
static int eqnn__weight_start(eqnn_ctx *c, eqnn__weight *w, const eqnn_init *init, uint64_t key)
{
    struct eqnn__params *p = c->params;
    eqnn_init o;
    memset(&o, 0, sizeof o);
    if (w->buffer) o.kind = EQNN_INIT_ZEROS;
    if (init) o = *init;
    if (!eqnn__slab_place(c, w)) return 0;
    eqnn__slab *s = &p->slab[w->slab];
    w->tensor = eqnn__weight_tensor(c, w, s->value + w->offset);
    if (!w->tensor || !eqnn__init_fill(c, w->tensor->data, w->rows, w->cols, &o, key)) return 0;
    if (s->state[EQNN__AVERAGE])
        memcpy(s->state[EQNN__AVERAGE] + w->offset, w->tensor->data,
               eqnn__weight_count(w) * sizeof(eqnn_real));
    for (int k = 0; k < EQNN__OPTIMIZERS; k++) w->born[k] = p->steps[k];
    return eqnn__weight_claim(c, w, NULL);
}

static eqnn__weight *eqnn__weight_make(eqnn_ctx *c, const char *name, uint64_t hash, int rows,
                                       int cols, int buffer, const eqnn_init *init)
{
    char *full = eqnn__params_get(c) ? eqnn__name_join(c, c->scope, name) : NULL;
    if (!full || !eqnn__name_allowed(c, full) || !eqnn__bytes(c, rows, cols)) return NULL;
    eqnn__weight *w = (eqnn__weight *)eqnn__keep_alloc(c, sizeof *w);
    if (!w) return NULL;
    w->name = full;
    w->hash = hash;
    w->rows = rows;
    w->cols = cols;
    w->buffer = buffer;
    w->rate = 1;
    eqnn__patterns_apply(w, c->params->patterns);
    /* not the stream that eqnn_normal has under this name */
    uint64_t key = eqnn__name_key(c, name) ^ UINT64_C(0x6a09e667f3bcc908);
    return eqnn__weight_start(c, w, init, key) && eqnn__weight_list(c, w) ? w : NULL;
}

/* What a worker does at the first call of a name: looks it up where the weights are. */
static eqnn__weight *eqnn__weight_borrow(eqnn_ctx *c, const char *name, uint64_t hash)
{
    eqnn__weight *w = eqnn__weight_find(c->owner->params, hash, c->scope, strlen(c->scope), name);
    if (w) return eqnn__weight_mirror(c, w);
    eqnn__fail(c, "%s: %s%s is not there: call the model once in the context that has the weights",
               c->op, c->scope, name);
    return NULL;
}

static eqnn_tensor *eqnn__param(eqnn_ctx *c, const char *name, int rows, int cols,
                                const eqnn_init *init, int buffer)
{
    if (!c || c->failed) return NULL;
    c->op = buffer ? "buffer" : "param";
    if (!name || !*name) return eqnn__fail(c, "%s: one in \"%s\" has no name", c->op, c->scope);
    int d = c->scope_depth;
    size_t length = d ? (size_t)c->scope_length[d] : 0;
    uint64_t hash = eqnn__hash(d ? c->scope_hash[d] : EQNN__HASH, name, strlen(name));
    eqnn__weight *w = eqnn__weight_find(c->params, hash, c->scope, length, name);
    if (!w && c->owner != c) w = eqnn__weight_borrow(c, name, hash);
    else if (!w) w = eqnn__weight_make(c, name, hash, rows, cols, buffer, init);
    if (!w) return NULL;
    if (w->rows != rows || w->cols != cols || w->buffer != buffer)
        return eqnn__fail(c, "%s: %s is a %s of [%d,%d] and is asked for as a %s of [%d,%d]", c->op,
                          w->name, w->buffer ? "buffer" : "parameter", w->rows, w->cols,
                          buffer ? "buffer" : "parameter", rows, cols);
    w->used++;
    return w->tensor;
}

EQNN_API eqnn_tensor *eqnn_param(eqnn_ctx *c, const char *name, int rows, int cols,
                                 const eqnn_init *init)
{
    return eqnn__param(c, name, rows, cols, init, 0);
}

EQNN_API eqnn_tensor *eqnn_buffer(eqnn_ctx *c, const char *name, int rows, int cols,
                                  const eqnn_init *init)
{
    return eqnn__param(c, name, rows, cols, init, 1);
}

/* --- looking at them --- */

EQNN_API int eqnn_parameter_count(const eqnn_ctx *c)
{
    return c && c->owner->params ? c->owner->params->trained_count : 0;
}

EQNN_API size_t eqnn_parameter_size(const eqnn_ctx *c)
{
    size_t n = 0;
    for (int i = 0; i < eqnn_parameter_count(c); i++)
        n += eqnn__weight_count(c->owner->params->trained[i]);
    return n;
}

/* This context's tensor of a weight of the owner. */
static eqnn_tensor *eqnn__weight_here(eqnn_ctx *c, eqnn__weight *w)
{
    if (!w || c->failed) return NULL;
    if (c->owner == c) return w->tensor;
    eqnn__weight *mine = eqnn__weight_named(c->params, w->name);
    if (!mine) mine = eqnn__weight_mirror(c, w);
    return mine ? mine->tensor : NULL;
}

EQNN_API eqnn_tensor *eqnn_parameter(eqnn_ctx *c, const char *full_name)
{
    if (!c || !full_name) return NULL;
    return eqnn__weight_here(c, eqnn__weight_named(c->owner->params, full_name));
}

EQNN_API eqnn_tensor *eqnn_parameter_at(eqnn_ctx *c, int i)
{
    if (i < 0 || i >= eqnn_parameter_count(c)) return NULL;
    return eqnn__weight_here(c, c->owner->params->trained[i]);
}

EQNN_API const char *eqnn_parameter_name(const eqnn_ctx *c, int i)
{
    return i < 0 || i >= eqnn_parameter_count(c) ? NULL : c->owner->params->trained[i]->name;
}

/* 1 when x is a parameter (or buffer) that can be used, else 0 and an error. */
static int eqnn__is_weight(const eqnn_tensor *x, const char *op)
{
    if (eqnn__bad(x, op)) return 0;
    if (!x->weight)
        eqnn__fail(x->ctx, "%s: a [%d,%d] tensor is not a parameter", op, x->rows, x->cols);
    return x->weight != NULL;
}

EQNN_API int eqnn_set(eqnn_tensor *parameter, const double *values)
{
    if (!eqnn__is_weight(parameter, "set")) return 0;
    eqnn_ctx *c = parameter->ctx;
    size_t n = eqnn__count(parameter);
    if (c->owner != c) eqnn__fail(c, "set: a worker only reads the weights");
    else if (n && !values) eqnn__fail(c, "set: the numbers are missing (NULL)");
    for (size_t i = 0; !c->failed && i < n; i++) parameter->data[i] = (eqnn_real)values[i];
    if (c->params) c->params->version++;
    return !c->failed;
}

/* --- gradients --- */

static int eqnn__weight_trainable(const eqnn_tensor *x)
{
    const eqnn__weight *w = x->weight;
    if (w && w->master) w = w->master;
    return w && !w->buffer && !w->frozen;
}

/* Called by eqnn_backward for every cotangent that reaches a parameter. */
static void eqnn__weight_gradient_add(eqnn_tensor *x, eqnn_tensor *g)
{
    if (!g || !eqnn__weight_trainable(x)) return;
    eqnn_ctx *c = x->ctx;
    size_t cols = eqnn__count(x);
    eqnn_real *sum = eqnn__slab_gradient(c, x->weight->slab);
    if (sum && cols)
        c->k->copy2d(&c->device, 1, cols, g->data, cols, sum + x->weight->offset, cols, 1);
}

EQNN_API eqnn_tensor *eqnn_gradient(eqnn_tensor *parameter)
{
    if (!eqnn__is_weight(parameter, "gradient")) return NULL;
    const eqnn__weight *w = parameter->weight;
    const struct eqnn__params *p = parameter->ctx->params;
    const eqnn_real *g = w->slab < p->slabs ? p->slab[w->slab].gradient : NULL;
    if (!g) return eqnn_zeros(parameter->ctx, w->rows, w->cols);
    return eqnn_from(parameter->ctx, w->rows, w->cols, g + w->offset);
}

EQNN_API void eqnn_zero_gradients(eqnn_ctx *c)
{
    if (!c || !c->params) return;
    for (int i = 0; i < c->params->slabs; i++) {
        eqnn__slab *s = &c->params->slab[i];
        if (s->gradient) memset(s->gradient, 0, s->size * sizeof *s->gradient);
    }
}

EQNN_API int eqnn_freeze(eqnn_ctx *c, const char *pattern, int frozen)
{
    int matches = 0;
    if (!c || c->failed) return 0;
    c->op = "freeze";
    if (!pattern || c->owner != c)
        eqnn__fail(c, "freeze: %s",
                   pattern ? "a worker only reads the weights" : "the pattern is missing (NULL)");
    eqnn__pattern *q = c->failed ? NULL : eqnn__pattern_add(c, 0, pattern, frozen != 0);
    for (int i = 0; q && i < c->params->trained_count; i++) {
        eqnn__weight *w = c->params->trained[i];
        if (!eqnn__fits(pattern, w->name)) continue;
        eqnn__pattern_apply(w, q);
        matches++;
        eqnn_real *g = c->params->slab[w->slab].gradient;
        if (frozen && g) memset(g + w->offset, 0, eqnn__weight_count(w) * sizeof *g);
    }
    return matches;
}

EQNN_API int eqnn_rate_scale(eqnn_ctx *c, const char *pattern, double scale)
{
    int matches = 0;
    if (!c || c->failed) return 0;
    c->op = "rate_scale";
    if (!pattern || !(scale >= 0) || c->owner != c)
        eqnn__fail(
            c,
            "rate_scale: \"%s\" times %g: needs a pattern, a factor >= 0 and the context that has "
            "the weights",
            pattern ? pattern : "NULL", scale);
    eqnn__pattern *q = c->failed ? NULL : eqnn__pattern_add(c, 1, pattern, scale);
    for (int i = 0; q && i < c->params->trained_count; i++) {
        if (!eqnn__fits(pattern, c->params->trained[i]->name)) continue;
        eqnn__pattern_apply(c->params->trained[i], q);
        matches++;
    }
    return matches;
}

EQNN_API void eqnn_open(eqnn_ctx *c, const char *prefix)
{
    if (!c || c->failed) return;
    c->op = "open";
    if (prefix) eqnn__pattern_add(c, 2, prefix, 1);
    else eqnn__fail(c, "open: the prefix is missing (NULL)");
}

/* --- filed updates --- */

static int eqnn__params_updates(const eqnn_ctx *c)
{
    return c->params ? c->params->updates : 0;
}

static void eqnn__params_rewind(eqnn_ctx *c, int updates)
{
    struct eqnn__params *p = c->params;
    if (!p || updates >= p->updates || updates < 0) return;
    p->pending_used = p->filed[updates].offset;
    p->updates = updates;
}

/* Room for n more numbers behind the pending ones; what was there moves. */
static eqnn_real *eqnn__pending_room(eqnn_ctx *c, size_t n)
{
    struct eqnn__params *p = c->params;
    if (n > p->pending_room - p->pending_used) {
        size_t room = 2 * p->pending_room + n;
        eqnn_real *more = (eqnn_real *)eqnn__keep_alloc(c, room * sizeof *more);
        if (!more) return NULL;
        if (p->pending_used) memcpy(more, p->pending, p->pending_used * sizeof *more);
        p->pending = more;
        p->pending_room = room;
    }
    return p->pending + p->pending_used;
}

static void eqnn__file(eqnn_ctx *c, eqnn__weight *w, const eqnn_real *value, double momentum)
{
    struct eqnn__params *p = c->params;
    size_t n = eqnn__weight_count(w);
    void *table = p->filed;
    if (!eqnn__grow(c, &table, p->updates, &p->filed_room, sizeof *p->filed)) return;
    p->filed = (eqnn__filed *)table;
    eqnn_real *copy = eqnn__pending_room(c, n);
    if (!copy) return;
    memcpy(copy, value, n * sizeof *copy);
    p->filed[p->updates].buffer = w;
    p->filed[p->updates].momentum = momentum;
    p->filed[p->updates].offset = p->pending_used;
    p->updates++;
    p->pending_used += n;
}

EQNN_API void eqnn_file_update(eqnn_tensor *buffer, eqnn_tensor *value, double momentum)
{
    if (eqnn__bad2(buffer, value, "file_update")) return;
    eqnn__weight *w = buffer->weight;
    if (!w || !w->buffer || w->rows != value->rows || w->cols != value->cols)
        eqnn__fail(buffer->ctx, "file_update: %s [%d,%d] takes a value of that size, not [%d,%d]",
                   w && w->buffer ? w->name : "only a buffer can be updated;", buffer->rows,
                   buffer->cols, value->rows, value->cols);
    else
        eqnn__file(buffer->ctx, w, value->data, momentum);
}

EQNN_API void eqnn_commit(eqnn_ctx *c)
{
    if (!c || c->failed || !c->params) return;
    struct eqnn__params *p = c->params;
    if (c->owner != c && p->updates) {
        eqnn__fail(
            c, "commit: a worker only reads the weights; eqnn_add_gradients hands its updates on");
        return;
    }
    if (p->updates) p->version++;
    for (int i = 0; i < p->updates; i++) {
        eqnn_real *x = p->filed[i].buffer->tensor->data, *v = p->pending + p->filed[i].offset;
        eqnn__update u;
        memset(&u, 0, sizeof u);
        u.kind = EQNN__EMA;
        u.beta1 = 1 - p->filed[i].momentum;
        c->k->update(&c->device, &u, eqnn__weight_count(p->filed[i].buffer), v, NULL, x, NULL);
    }
    eqnn__params_rewind(c, 0);
}

EQNN_API void eqnn_add_gradients(eqnn_ctx *to, eqnn_ctx *worker)
{
    if (!to || !worker || to->failed) return;
    to->op = "add_gradients";
    if (worker->owner != to || worker == to)
        eqnn__fail(to, "add_gradients: the worker does not use the weights of this context");
    else if (worker->failed)
        eqnn__fail(to, "add_gradients: the worker failed: %.400s", worker->error);
    struct eqnn__params *p = worker->params;
    if (to->failed || !p) return;
    for (int i = 0; i < p->slabs; i++) {
        size_t n = to->params->slab[i].used;
        eqnn_real *g = p->slab[i].gradient, *sum = g ? eqnn__slab_gradient(to, i) : NULL;
        if (sum && n) to->k->copy2d(&to->device, 1, n, g, n, sum, n, 1);
    }
    for (int i = 0; i < p->updates && !to->failed; i++)
        eqnn__file(to, p->filed[i].buffer->master, p->pending + p->filed[i].offset,
                   p->filed[i].momentum);
    eqnn__params_rewind(worker, 0);
    eqnn_zero_gradients(worker);
}

/* --- life --- */

static void eqnn__params_reset(eqnn_ctx *c)
{
    struct eqnn__params *p = c->params;
    c->scope_depth = 0;
    c->scope[0] = 0;
    if (!p) return;
    eqnn__params_rewind(c, 0);
    for (int i = 0; i < p->count; i++) {
        eqnn__weight *w = p->all[i];
        if (w->used) w->used_before = w->used;
        w->used = 0;
    }
}

static void eqnn__load_free(eqnn_ctx *c, eqnn__load *l);

static void eqnn__params_free(eqnn_ctx *c)
{
    struct eqnn__params *p = c->params;
    if (!p) return;
    while (p->loads) {
        eqnn__load *next = p->loads->next;
        eqnn__load_free(c, p->loads);
        p->loads = next;
    }
    for (eqnn__note *n = p->notes; n; n = n->next) {
        eqnn__heap_string_free(c, n->key);
        eqnn__heap_string_free(c, n->text);
    }
    if (p->bin) eqnn__try_heap(c, p->bin, p->bins * sizeof *p->bin, 0);
    if (p->all) eqnn__try_heap(c, p->all, (size_t)p->room * sizeof *p->all, 0);
    if (p->trained) eqnn__try_heap(c, p->trained, (size_t)p->trained_room * sizeof *p->trained, 0);
    if (p->slab) eqnn__try_heap(c, p->slab, (size_t)p->slab_room * sizeof *p->slab, 0);
    if (p->filed) eqnn__try_heap(c, p->filed, (size_t)p->filed_room * sizeof *p->filed, 0);
    c->params = NULL;
}

/* --- the table of weights --- */

static double eqnn__weight_rms(eqnn_ctx *c, const eqnn__weight *w)
{
    double sum = 0;
    size_t n = eqnn__weight_count(w);
    if (n) c->k->total(&c->device, 1, n, w->tensor->data, &sum);
    return n ? sqrt(sum / (double)n) : 0;
}

static void eqnn__summary_line(eqnn_ctx *c, FILE *file, const eqnn__weight *w, int width)
{
    char size[40], note[60] = "";
    if (w->rows == 1) snprintf(size, sizeof size, "[%d]", w->cols);
    else snprintf(size, sizeof size, "[%d,%d]", w->rows, w->cols);
    if (w->buffer) snprintf(note, sizeof note, "  buffer");
    else if (w->frozen) snprintf(note, sizeof note, "  frozen");
    else if (w->rate < 1 || w->rate > 1) snprintf(note, sizeof note, "  rate x %g", w->rate);
    fprintf(file, "%-*s  %13s %11lu %5d %11.4g%s\n", width, w->name, size,
            (unsigned long)eqnn__weight_count(w), w->used ? w->used : w->used_before,
            eqnn__weight_rms(c, w), note);
}

EQNN_API void eqnn_summary(eqnn_ctx *c, FILE *file)
{
    int width = 4;
    if (!c || !file) return;
    const struct eqnn__params *p = c->owner->params;
    for (int i = 0; p && i < p->count; i++) {
        int n = (int)strlen(p->all[i]->name);
        if (n > width) width = n;
    }
    fprintf(file, "%-*s  %13s %11s %5s %11s\n", width, "name", "size", "numbers", "used", "rms");
    for (int i = 0; p && i < p->count; i++) eqnn__summary_line(c->owner, file, p->all[i], width);
    fprintf(file, "%d parameters, %lu numbers, %.1f KB\n", eqnn_parameter_count(c),
            (unsigned long)eqnn_parameter_size(c),
            (double)eqnn_parameter_size(c) * sizeof(eqnn_real) / 1024);
}

/* --- safetensors: the header --- */

/* A file is   n (8 bytes, least first) | n bytes of JSON | numbers (least byte first)   with

       {"__metadata__":{"key":"text",...},
        "name":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},...}

   Offsets count from the first number; entries fill the rest of the file without holes or overlap.
   The reader trusts nothing: a file that says anything else is refused with a sentence. */
enum { EQNN__FLOAT, EQNN__HALF, EQNN__BRAIN, EQNN__SIGNED, EQNN__UNSIGNED, EQNN__BOOL };
typedef struct eqnn__dtype { const char *name; int size, kind; } eqnn__dtype;
static const eqnn__dtype eqnn__dtypes[] = {
    { "F64", 8, EQNN__FLOAT }, { "F32", 4, EQNN__FLOAT }, { "F16", 2, EQNN__HALF },
    { "BF16", 2, EQNN__BRAIN }, { "I64", 8, EQNN__SIGNED }, { "I32", 4, EQNN__SIGNED },
    { "I16", 2, EQNN__SIGNED }, { "I8", 1, EQNN__SIGNED }, { "U64", 8, EQNN__UNSIGNED },
    { "U32", 4, EQNN__UNSIGNED }, { "U16", 2, EQNN__UNSIGNED }, { "U8", 1, EQNN__UNSIGNED },
    { "BOOL", 1, EQNN__BOOL } };
#define EQNN__HEADER_MOST 100000000 /* bytes, as in the reference implementation */

typedef struct eqnn__stored {
    eqnn_entry e;              /* what the user sees comes first */
    const eqnn__dtype *type;
    size_t begin, end;         /* bytes of its numbers           */
} eqnn__stored;
typedef struct eqnn__meta { const char *key, *text; } eqnn__meta;

struct eqnn_file {
    eqnn_ctx *ctx;
    const char *path;                  /* for sentences                                     */
    const unsigned char *bytes, *data; /* all; the numbers                                  */
    size_t size, data_size;
    int owned;  /* bytes is ours to free                              */
    char *text; /* names and texts: shorter than the JSON they are in */
    size_t text_size, text_used;
    eqnn__stored *entry, **by_name;
    int count, room, sorted;
    eqnn__meta *meta;
    int metas, meta_room;
};

/* Reading JSON: one pointer that never passes the end. */
typedef struct eqnn__json { eqnn_file *f; const unsigned char *at, *end; } eqnn__json;

static int eqnn__json_fail(eqnn__json *j, const char *what)
{
    eqnn__fail(j->f->ctx, "file: %.200s: %s at byte %lu", j->f->path, what,
               (unsigned long)(j->at - j->f->bytes));
    return 0;
}

static void eqnn__json_space(eqnn__json *j)
{
    while (j->at < j->end && (*j->at == ' ' || *j->at == '\t' || *j->at == '\n' || *j->at == '\r'))
        j->at++;
}

static int eqnn__json_expect(eqnn__json *j, char wanted)
{
    char what[] = "' ' is missing";
    what[1] = wanted;
    eqnn__json_space(j);
    if (j->at == j->end || *j->at != (unsigned char)wanted) return eqnn__json_fail(j, what);
    j->at++;
    return 1;
}

/* Steps to the next item of a list that ends with close: 1 there may be one, 0 end, -1 error. */
static int eqnn__json_next(eqnn__json *j, char close, int first)
{
    eqnn__json_space(j);
    if (j->at < j->end && *j->at == (unsigned char)close) {
        j->at++;
        return 0;
    }
    return first || eqnn__json_expect(j, ',') ? 1 : -1;
}

static int eqnn__json_hex(eqnn__json *j, uint32_t *u)
{
    *u = 0;
    for (int i = 0; i < 4; i++, j->at++) {
        int h = j->at < j->end ? *j->at : 0;
        int digit = h >= '0' && h <= '9' ? h - '0' : h >= 'a' && h <= 'f' ? h - 'a' + 10
                  : h >= 'A' && h <= 'F' ? h - 'A' + 10 : -1;
        if (digit < 0) return eqnn__json_fail(j, "four hexadecimal digits are missing");
        *u = *u << 4 | (uint32_t)digit;
    }
    return 1;
}

/* The character that \uXXXX stands for; characters beyond 16 bits are a pair. */
static int eqnn__json_unicode(eqnn__json *j, uint32_t *u)
{
    uint32_t low;
    if (!eqnn__json_hex(j, u)) return 0;
    if (*u == 0) return eqnn__json_fail(j, "a text with a zero in it");
    if (*u < 0xd800 || *u > 0xdfff) return 1;
    if (*u > 0xdbff || j->end - j->at < 2 || j->at[0] != '\\' || j->at[1] != 'u')
        return eqnn__json_fail(j, "half a surrogate pair");
    j->at += 2;
    if (!eqnn__json_hex(j, &low)) return 0;
    if (low < 0xdc00 || low > 0xdfff) return eqnn__json_fail(j, "half a surrogate pair");
    *u = 0x10000 + ((*u - 0xd800) << 10) + (low - 0xdc00);
    return 1;
}

static char *eqnn__utf8_put(char *t, uint32_t u)
{
    int more = u < 0x80 ? 0 : u < 0x800 ? 1 : u < 0x10000 ? 2 : 3;
    static const unsigned first[4] = { 0, 0xc0, 0xe0, 0xf0 };
    *t++ = (char)(unsigned char)(first[more] | u >> (6 * more));
    while (more-- > 0) *t++ = (char)(unsigned char)(0x80 | ((u >> (6 * more)) & 0x3f));
    return t;
}

/* What a backslash and the character after it stand for. */
static int eqnn__json_escape(eqnn__json *j, char **t)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    uint32_t u;
    if (j->at == j->end) return eqnn__json_fail(j, "a text without end");
    int ch = *j->at++;
    const char *k = ch ? strchr(from, ch) : NULL;
    if (k) {
        *(*t)++ = to[k - from];
        return 1;
    }
    if (ch != 'u') return eqnn__json_fail(j, "an unknown escape");
    if (!eqnn__json_unicode(j, &u)) return 0;
    *t = eqnn__utf8_put(*t, u);
    return 1;
}

/* A text, unescaped into the file's store; NULL and an error. */
static const char *eqnn__json_text(eqnn__json *j)
{
    char *start = j->f->text + j->f->text_used, *t = start;
    if (!eqnn__json_expect(j, '"')) return NULL;
    while (j->at < j->end && *j->at != '"') {
        if (*j->at == '\\') {
            j->at++;
            if (!eqnn__json_escape(j, &t)) return NULL;
            continue;
        }
        int n = *j->at < 0x20 ? 0 : eqnn__utf8(j->at, (size_t)(j->end - j->at));
        if (!n) {
            eqnn__json_fail(j, "a text that is not UTF-8 or has a control character");
            return NULL;
        }
        for (; n > 0; n--) *t++ = (char)*j->at++;
    }
    if (j->at == j->end) {
        eqnn__json_fail(j, "a text without end");
        return NULL;
    }
    j->at++;
    *t++ = 0;
    j->f->text_used += (size_t)(t - start);
    return start;
}

/* [a, b, ...]: whole numbers from 0 to 2^63 - 1, at most `most`; the count or -1. */
static int eqnn__json_numbers(eqnn__json *j, int64_t *v, int most, const char *too_many)
{
    int n = 0, more;
    if (!eqnn__json_expect(j, '[')) return -1;
    while ((more = eqnn__json_next(j, ']', n == 0)) > 0) {
        eqnn__json_space(j);
        if (n == most) return eqnn__json_fail(j, too_many) - 1;
        int zero = j->at < j->end && *j->at == '0', digits = 0;
        for (v[n] = 0; j->at < j->end && *j->at >= '0' && *j->at <= '9'; j->at++, digits++) {
            int digit = *j->at - '0';
            if (v[n] > (INT64_MAX - digit) / 10)
                return eqnn__json_fail(j, "a number beyond 2^63") - 1;
            v[n] = 10 * v[n] + digit;
        }
        if (!digits || (zero && digits > 1)) return eqnn__json_fail(j, "not a whole number") - 1;
        n++;
    }
    return more < 0 ? -1 : n;
}

static int eqnn__json_dtype(eqnn__json *j, eqnn__stored *s)
{
    const char *name = eqnn__json_text(j);
    if (!name) return 0;
    for (size_t i = 0; i < sizeof eqnn__dtypes / sizeof eqnn__dtypes[0]; i++)
        if (!strcmp(name, eqnn__dtypes[i].name)) {
            s->type = &eqnn__dtypes[i];
            s->e.dtype = s->type->name;
            return 1;
        }
    eqnn__fail(j->f->ctx,
               "file: %.200s: %.100s holds numbers of type %.20s, which is not read: use one of "
               "F64 F32 F16 BF16 I64 I32 I16 I8 U64 U32 U16 U8 BOOL",
               j->f->path, s->e.name, name);
    return 0;
}

/* Do sizes, type and offsets agree? */
static int eqnn__stored_check(eqnn__json *j, eqnn__stored *s, const int64_t offset[2])
{
    const eqnn_file *f = j->f;
    size_t count = 1;
    for (int i = 0; i < s->e.dims; i++) {
        uint64_t n = (uint64_t)s->e.shape[i];
        if (n && count > SIZE_MAX / 8 / n)
            return eqnn__json_fail(j, "a shape that overflows, ending");
        count *= (size_t)n;
    }
    if (offset[0] > offset[1] || (uint64_t)offset[1] > f->data_size) {
        eqnn__fail(f->ctx, "file: %.200s: %.100s lies at bytes %lld to %lld of %lu", f->path,
                   s->e.name, (long long)offset[0], (long long)offset[1],
                   (unsigned long)f->data_size);
        return 0;
    }
    s->e.count = count;
    s->begin = (size_t)offset[0];
    s->end = (size_t)offset[1];
    if (s->end - s->begin == count * (size_t)s->type->size) return 1;
    eqnn__fail(f->ctx, "file: %.200s: %.100s has %lu numbers of type %s in %lu bytes", f->path,
               s->e.name, (unsigned long)count, s->e.dtype, (unsigned long)(s->end - s->begin));
    return 0;
}

static int eqnn__json_entry(eqnn__json *j, const char *name)
{
    eqnn_file *f = j->f;
    eqnn__stored s;
    int64_t offset[2] = { 0, 0 };
    int more, first = 1, seen = 0, at = 0;
    memset(&s, 0, sizeof s);
    s.e.name = name;
    if (!eqnn__json_expect(j, '{')) return 0;
    for (; (more = eqnn__json_next(j, '}', first)) > 0; first = 0) {
        const char *key = eqnn__json_text(j);
        if (!key || !eqnn__json_expect(j, ':')) return 0;
        at = !strcmp(key, "dtype")          ? 1
             : !strcmp(key, "shape")        ? 2
             : !strcmp(key, "data_offsets") ? 4
                                            : 0;
        if (!at || (seen & at)) return eqnn__json_fail(j, at ? "a key twice" : "an unknown key");
        seen |= at;
        if (at == 1 && !eqnn__json_dtype(j, &s)) return 0;
        if (at == 2) s.e.dims = eqnn__json_numbers(j, s.e.shape, 8, "a shape of more than 8 sizes");
        if (at == 4 && eqnn__json_numbers(j, offset, 2, "more than 2 offsets") != 2)
            return eqnn__json_fail(j, "fewer than 2 offsets");
        if (f->ctx->failed) return 0;
    }
    if (more < 0) return 0;
    if (seen != 7)
        return eqnn__json_fail(j, "an entry without dtype, shape or data_offsets, ending");
    if (!eqnn__stored_check(j, &s, offset)) return 0;
    void *table = f->entry;
    if (!eqnn__grow(f->ctx, &table, f->count, &f->room, sizeof s)) return 0;
    f->entry = (eqnn__stored *)table;
    f->entry[f->count++] = s;
    return 1;
}

static int eqnn__json_metadata(eqnn__json *j)
{
    eqnn_file *f = j->f;
    int more;
    if (!eqnn__json_expect(j, '{')) return 0;
    while ((more = eqnn__json_next(j, '}', f->metas == 0)) > 0) {
        eqnn__meta m;
        m.key = eqnn__json_text(j);
        if (!m.key || !eqnn__json_expect(j, ':')) return 0;
        m.text = eqnn__json_text(j);
        void *table = f->meta;
        if (!m.text || !eqnn__grow(f->ctx, &table, f->metas, &f->meta_room, sizeof m)) return 0;
        f->meta = (eqnn__meta *)table;
        f->meta[f->metas++] = m;
    }
    return more == 0;
}

static int eqnn__json_header(eqnn__json *j)
{
    int more, first = 1, metadata = 0;
    if (j->at == j->end || *j->at != '{')
        return eqnn__json_fail(j, "the header does not begin with '{'");
    j->at++;
    for (; (more = eqnn__json_next(j, '}', first)) > 0; first = 0) {
        const char *name = eqnn__json_text(j);
        if (!name || !eqnn__json_expect(j, ':')) return 0;
        if (strcmp(name, "__metadata__")) {
            if (!eqnn__json_entry(j, name)) return 0;
            continue;
        }
        if (metadata++) return eqnn__json_fail(j, "__metadata__ a second time");
        if (!eqnn__json_metadata(j)) return 0;
    }
    if (more < 0) return 0;
    eqnn__json_space(j);
    return j->at == j->end ? 1 : eqnn__json_fail(j, "something after the header's last '}'");
}

/* --- safetensors: the file --- */

static int eqnn__by_place(const void *a, const void *b)
{
    const eqnn__stored *s = *(eqnn__stored *const *)a, *t = *(eqnn__stored *const *)b;
    if (s->begin != t->begin) return s->begin < t->begin ? -1 : 1;
    return s->end < t->end ? -1 : s->end > t->end;
}

static int eqnn__by_name(const void *a, const void *b)
{
    return strcmp((*(eqnn__stored *const *)a)->e.name, (*(eqnn__stored *const *)b)->e.name);
}

static int eqnn__by_key(const void *a, const void *b)
{
    return strcmp(((const eqnn__meta *)a)->key, ((const eqnn__meta *)b)->key);
}

/* The numbers of the file must be covered exactly once. */
static int eqnn__file_covered(const eqnn_file *f)
{
    size_t at = 0;
    for (int i = 0; i < f->count; i++) {
        const eqnn__stored *s = f->by_name[i];
        if (s->begin != at) {
            eqnn__fail(
                f->ctx,
                "file: %.200s: %.100s begins at byte %lu where %lu is due: a hole or an overlap",
                f->path, s->e.name, (unsigned long)s->begin, (unsigned long)at);
            return 0;
        }
        at = s->end;
    }
    if (at != f->data_size)
        eqnn__fail(f->ctx, "file: %.200s: %lu bytes after the last number", f->path,
                   (unsigned long)(f->data_size - at));
    return at == f->data_size;
}

/* Sorts, so that names are found quickly, and finds what is there twice. */
static int eqnn__file_sort(eqnn_file *f)
{
    size_t bytes = (size_t)f->count * sizeof *f->by_name;
    if (f->count) f->by_name = (eqnn__stored **)eqnn__heap(f->ctx, NULL, 0, bytes);
    if (f->count && !f->by_name) return 0;
    f->sorted = f->count;
    for (int i = 0; i < f->count; i++) f->by_name[i] = &f->entry[i];
    if (f->count) qsort(f->by_name, (size_t)f->count, sizeof *f->by_name, eqnn__by_place);
    if (!eqnn__file_covered(f)) return 0;
    if (f->count) qsort(f->by_name, (size_t)f->count, sizeof *f->by_name, eqnn__by_name);
    if (f->metas) qsort(f->meta, (size_t)f->metas, sizeof *f->meta, eqnn__by_key);
    const char *twice = NULL;
    for (int i = 1; i < f->count; i++)
        if (!eqnn__by_name(&f->by_name[i - 1], &f->by_name[i])) twice = f->by_name[i]->e.name;
    for (int i = 1; i < f->metas; i++)
        if (!eqnn__by_key(&f->meta[i - 1], &f->meta[i])) twice = f->meta[i].key;
    if (twice) eqnn__fail(f->ctx, "file: %.200s: %.100s is there twice", f->path, twice);
    return !twice;
}

EQNN_API void eqnn_file_close(eqnn_file *f)
{
    if (!f) return;
    eqnn_ctx *c = f->ctx;
    if (f->by_name) eqnn__try_heap(c, f->by_name, (size_t)f->sorted * sizeof *f->by_name, 0);
    if (f->meta) eqnn__try_heap(c, f->meta, (size_t)f->meta_room * sizeof *f->meta, 0);
    if (f->entry) eqnn__try_heap(c, f->entry, (size_t)f->room * sizeof *f->entry, 0);
    if (f->text) eqnn__try_heap(c, f->text, f->text_size, 0);
    if (f->owned) eqnn__try_heap(c, (void *)(uintptr_t)f->bytes, f->size, 0);
    eqnn__try_heap(c, f, sizeof *f, 0);
}

/* Reads the header of bytes that are in memory already. */
static int eqnn__file_header(eqnn_file *f)
{
    uint64_t n = 0;
    if (f->size < 8) {
        eqnn__fail(f->ctx, "file: %.200s: %lu bytes are too few for a safetensors file", f->path,
                   (unsigned long)f->size);
        return 0;
    }
    for (int i = 0; i < 8; i++) n |= (uint64_t)f->bytes[i] << (8 * i);
    if (n > f->size - 8 || n > EQNN__HEADER_MOST) {
        eqnn__fail(f->ctx,
                   "file: %.200s: a header of %llu bytes in a file of %lu: truncated, or no "
                   "safetensors file",
                   f->path, (unsigned long long)n, (unsigned long)f->size);
        return 0;
    }
    f->data = f->bytes + 8 + n;
    f->data_size = f->size - 8 - (size_t)n;
    f->text_size = (size_t)n + strlen(f->path) + 1;
    f->text = (char *)eqnn__heap(f->ctx, NULL, 0, f->text_size);
    if (!f->text) return 0;
    f->text_used = strlen(f->path) + 1;
    memcpy(f->text, f->path, f->text_used);
    f->path = f->text;
    eqnn__json j;
    j.f = f;
    j.at = f->bytes + 8;
    j.end = f->data;
    return eqnn__json_header(&j) && eqnn__file_sort(f);
}

static eqnn_file *eqnn__file_make(eqnn_ctx *c, const char *path, const unsigned char *bytes,
                                  size_t size, int owned)
{
    eqnn_file *f = (eqnn_file *)eqnn__heap(c, NULL, 0, sizeof *f);
    if (!f) {
        if (owned) eqnn__try_heap(c, (void *)(uintptr_t)bytes, size, 0);
        return NULL;
    }
    memset(f, 0, sizeof *f);
    f->ctx = c;
    f->path = path;
    f->bytes = bytes;
    f->size = size;
    f->owned = owned;
    if (eqnn__file_header(f)) return f;
    eqnn_file_close(f);
    return NULL;
}

EQNN_API eqnn_file *eqnn_file_parse(eqnn_ctx *c, const void *bytes, size_t size)
{
    if (!c || c->failed) return NULL;
    c->op = "file";
    if (bytes || !size)
        return eqnn__file_make(c, "in memory", (const unsigned char *)bytes, size, 0);
    eqnn__fail(c, "file: the bytes are missing (NULL)");
    return NULL;
}

/* Bytes of an open file, or -1 when it cannot tell (a pipe, a folder). */
static int64_t eqnn__file_length(FILE *file)
{
    int ch = fgetc(file);
    if (ch == EOF) return ferror(file) ? -1 : 0;
#ifdef _WIN32
    int64_t n = _fseeki64(file, 0, SEEK_END) ? -1 : _ftelli64(file);
#else
    int64_t n = fseek(file, 0, SEEK_END) ? -1 : ftell(file);
#endif
    return fseek(file, 0, SEEK_SET) ? -1 : n;
}

/* The whole file in the caller's memory; NULL and an error. */
static unsigned char *eqnn__file_bytes(eqnn_ctx *c, FILE *file, const char *path, size_t *size)
{
    int64_t n = eqnn__file_length(file);
    if (n < 8 || (uint64_t)n > SIZE_MAX / 2) {
        eqnn__fail(c, n < 0 ? "file: %.300s cannot be read: not a plain file?"
                            : "file: %.300s is too short or too long for a safetensors file", path);
        return NULL;
    }
    *size = (size_t)n;
    unsigned char *bytes = (unsigned char *)eqnn__heap(c, NULL, 0, *size);
    if (!bytes || fread(bytes, 1, *size, file) == *size) return bytes;
    eqnn__fail(c, "file: %.300s ended while it was read", path);
    eqnn__try_heap(c, bytes, *size, 0);
    return NULL;
}

EQNN_API eqnn_file *eqnn_file_open(eqnn_ctx *c, const char *path)
{
    size_t size = 0;
    if (!c || c->failed) return NULL;
    c->op = "file";
    FILE *file = path ? fopen(path, "rb") : NULL;
    if (!file) {
        eqnn__fail(c, "file: %.300s: %s", path ? path : "NULL", path ? strerror(errno) : "no path");
        return NULL;
    }
    unsigned char *bytes = eqnn__file_bytes(c, file, path, &size);
    fclose(file);
    return bytes ? eqnn__file_make(c, path, bytes, size, 1) : NULL;
}

EQNN_API int eqnn_file_count(const eqnn_file *f) { return f ? f->count : 0; }
EQNN_API int eqnn_file_metas(const eqnn_file *f) { return f ? f->metas : 0; }

EQNN_API const eqnn_entry *eqnn_file_entry(const eqnn_file *f, int i)
{
    return f && i >= 0 && i < f->count ? &f->entry[i].e : NULL;
}

EQNN_API const char *eqnn_file_meta_key(const eqnn_file *f, int i)
{
    return f && i >= 0 && i < f->metas ? f->meta[i].key : NULL;
}

EQNN_API const eqnn_entry *eqnn_file_find(const eqnn_file *f, const char *name)
{
    for (int low = 0, high = f && name ? f->count : 0; low < high;) {
        int mid = low + (high - low) / 2, order = strcmp(name, f->by_name[mid]->e.name);
        if (order == 0) return &f->by_name[mid]->e;
        if (order < 0) high = mid;
        else low = mid + 1;
    }
    return NULL;
}

EQNN_API const char *eqnn_file_meta(const eqnn_file *f, const char *key)
{
    for (int low = 0, high = f && key ? f->metas : 0; low < high;) {
        int mid = low + (high - low) / 2, order = strcmp(key, f->meta[mid].key);
        if (order == 0) return f->meta[mid].text;
        if (order < 0) high = mid;
        else low = mid + 1;
    }
    return NULL;
}

/* --- safetensors: the numbers --- */

static uint64_t eqnn__raw(const unsigned char *b, int size)
{
    uint64_t u = 0;
    for (int i = 0; i < size; i++) u |= (uint64_t)b[i] << (8 * i);
    return u;
}

/* IEEE half precision: sign, 5 bits of exponent, 10 of fraction. */
static double eqnn__half(unsigned u)
{
    int exponent = (int)(u >> 10 & 31), fraction = (int)(u & 1023);
    double x = exponent == 31 ? (fraction ? (double)NAN : (double)INFINITY)
             : exponent == 0 ? ldexp(fraction, -24) : ldexp(1024 + fraction, exponent - 25);
    return u >> 15 ? -x : x;
}

static int64_t eqnn__signed(uint64_t u, int size)
{
    uint64_t sign = UINT64_C(1) << (8 * size - 1);
    return u & sign ? -(int64_t)(2 * (sign - 1) + 1 - u) - 1 : (int64_t)u;
}

/* Number i of an entry. */
static double eqnn__stored_value(const eqnn_file *f, const eqnn__stored *s, size_t i)
{
    uint64_t u = eqnn__raw(f->data + s->begin + i * (size_t)s->type->size, s->type->size);
    uint32_t word = (uint32_t)(s->type->kind == EQNN__BRAIN ? u << 16 : u);
    double x;
    float y;
    if (s->type->kind == EQNN__HALF) return eqnn__half((unsigned)u);
    if (s->type->kind == EQNN__SIGNED) return (double)eqnn__signed(u, s->type->size);
    if (s->type->kind == EQNN__UNSIGNED) return (double)u;
    if (s->type->kind == EQNN__BOOL) return u != 0;
    if (s->type->size == 8) {
        memcpy(&x, &u, 8);
        return x;
    }
    memcpy(&y, &word, 4);
    return (double)y;
}

/* 1 when e is an entry of f and there is somewhere to put it. */
static int eqnn__file_ready(const eqnn_file *f, const eqnn_entry *e, const void *out)
{
    if (!f || f->ctx->failed) return 0;
    f->ctx->op = "file";
    if (!e || (e->count && !out))
        eqnn__fail(f->ctx, "file: %.200s: an entry or its place is missing (NULL)", f->path);
    return !f->ctx->failed;
}

EQNN_API int eqnn_file_read(eqnn_file *f, const eqnn_entry *e, double *out)
{
    if (!eqnn__file_ready(f, e, out)) return 0;
    const eqnn__stored *s = (const eqnn__stored *)(const void *)e;
    for (size_t i = 0; i < e->count; i++) out[i] = eqnn__stored_value(f, s, i);
    return 1;
}

EQNN_API int eqnn_file_read_int(eqnn_file *f, const eqnn_entry *e, int64_t *out)
{
    if (!eqnn__file_ready(f, e, out)) return 0;
    const eqnn__stored *s = (const eqnn__stored *)(const void *)e;
    for (size_t i = 0; i < e->count; i++) {
        uint64_t u = eqnn__raw(f->data + s->begin + i * (size_t)s->type->size, s->type->size);
        if (s->type->kind < EQNN__SIGNED || (s->type->kind == EQNN__UNSIGNED && u > INT64_MAX)) {
            eqnn__fail(f->ctx, "file: %.200s: %.100s holds %s numbers, not integers below 2^63",
                       f->path, e->name, e->dtype);
            return 0;
        }
        out[i] = s->type->kind == EQNN__SIGNED ? eqnn__signed(u, s->type->size)
               : s->type->kind == EQNN__BOOL ? u != 0 : (int64_t)u;
    }
    return 1;
}

/* --- writing files --- */

typedef struct eqnn__out {
    FILE *file;    /* NULL: only counts */
    size_t length; /* bytes so far      */
    int failed;
} eqnn__out;
typedef void (*eqnn__writer)(eqnn__out *o, const void *user);

static void eqnn__emit(eqnn__out *o, const void *bytes, size_t n)
{
    if (o->file && n && !o->failed) o->failed = fwrite(bytes, 1, n, o->file) != n;
    o->length += n;
}

static void eqnn__emit_text(eqnn__out *o, const char *s)
{
    eqnn__emit(o, s, strlen(s));
}

/* A JSON text of s, which is UTF-8; several parts make one text. */
static void eqnn__emit_escaped(eqnn__out *o, const char *s)
{
    for (; *s; s++) {
        char code[8];
        if (*s == '"' || *s == '\\') snprintf(code, sizeof code, "\\%c", *s);
        else if ((unsigned char)*s < 0x20)
            snprintf(code, sizeof code, "\\u%04x", (unsigned)(unsigned char)*s);
        else snprintf(code, sizeof code, "%c", *s);
        eqnn__emit_text(o, code);
    }
}

/* Numbers, least byte first on every machine. */
static void eqnn__emit_numbers(eqnn__out *o, const eqnn_real *x, size_t n)
{
    unsigned char block[4096];
    size_t size = sizeof(eqnn_real), most = sizeof block / size;
    while (n > 0) {
        size_t now = n < most ? n : most;
        for (size_t i = 0; i < now; i++) {
            uint64_t u = 0;
            uint32_t word = 0;
            if (size == 8) memcpy(&u, &x[i], size);
            else memcpy(&word, &x[i], sizeof word);
            u |= word;
            for (size_t k = 0; k < size; k++) block[i * size + k] = (unsigned char)(u >> (8 * k));
        }
        eqnn__emit(o, block, now * size);
        x += now;
        n -= now;
    }
}

/* Asks the machine to bring the file to the disk before its name changes. */
#if (defined(__unix__) || defined(__APPLE__)) && !defined(__cplusplus) && !defined(_POSIX_C_SOURCE)
extern int fileno(FILE *file); /* what -std=c99 hides */
extern int fsync(int descriptor);
#endif
static int eqnn__file_sync(FILE *file)
{
    if (fflush(file)) return 0;
#if defined(__unix__) || defined(__APPLE__)
    return fsync(fileno(file)) == 0 || errno == EINVAL || errno == ENOSYS; /* [2] */
#elif defined(_WIN32)
    return _commit(_fileno(file)) == 0;
#else
    return 1;
#endif
}
/* [2] some file systems cannot; the rename is still whole */

/* rename that replaces the old file, in one step. */
#if defined(_WIN32)
EQNN__C __declspec(dllimport) int __stdcall MoveFileExA(const char *from, const char *to,
                                                        unsigned long flags);
static int eqnn__file_replace(const char *from, const char *to)
{
    return MoveFileExA(from, to, 1ul | 8ul) != 0; /* replace, write through */
}
#else
static int eqnn__file_replace(const char *from, const char *to)
{
    return rename(from, to) == 0;
}
#endif

/* Writes path.part, then renames it to path: a crash, a full disk or Ctrl-C leaves the old file. */
static int eqnn__write_whole(eqnn_ctx *c, const char *path, eqnn__writer write, const void *user)
{
    size_t n = path ? strlen(path) : 0;
    char *part = n ? (char *)eqnn__heap(c, NULL, 0, n + 6) : NULL;
    if (!part) {
        eqnn__fail(c, "%s: no path", c->op);
        return 0;
    }
    memcpy(part, path, n);
    memcpy(part + n, ".part", 6);
    eqnn__out o;
    memset(&o, 0, sizeof o);
    errno = 0;
    o.file = fopen(part, "wb");
    int good = o.file != NULL;
    if (good) write(&o, user);
    good = good && !o.failed && eqnn__file_sync(o.file);
    int problem = errno;
    if (o.file && fclose(o.file) && good) good = 0, problem = errno;
    if (good && !eqnn__file_replace(part, path)) good = 0, problem = errno;
    if (!good && o.file) remove(part);
    if (!good)
        eqnn__fail(c, "%s: %.300s is not written: %s", c->op, path,
                   problem ? strerror(problem) : "unknown");
    eqnn__heap(c, part, n + 6, 0);
    return good;
}

typedef struct eqnn__bytes_item { const void *bytes; size_t n; } eqnn__bytes_item;

static void eqnn__emit_bytes(eqnn__out *o, const void *user)
{
    const eqnn__bytes_item *b = (const eqnn__bytes_item *)user;
    eqnn__emit(o, b->bytes, b->n);
}

EQNN_API int eqnn_write_file(eqnn_ctx *c, const char *path, const void *bytes, size_t n)
{
    eqnn__bytes_item b;
    if (!c || c->failed) return 0;
    c->op = "write_file";
    b.bytes = bytes;
    b.n = n;
    return eqnn__write_whole(c, path, eqnn__emit_bytes, &b);
}

/* --- safetensors: writing --- */

/* One array of a file; its name is in two parts: "eqnn.adam.m." and "conv1.weight". */
typedef struct eqnn__item {
    const char *prefix, *name;
    int rows, cols;
    const eqnn_real *data;
} eqnn__item;
typedef struct eqnn__archive {
    const eqnn__item *item;
    const eqnn__meta *meta;
    int items, metas;
    size_t header; /* bytes of the JSON, filled up to a multiple of 8 */
} eqnn__archive;

static void eqnn__emit_entry(eqnn__out *o, const eqnn__item *x, size_t begin, size_t end)
{
    char text[160];
    eqnn__emit_text(o, "\"");
    eqnn__emit_escaped(o, x->prefix);
    eqnn__emit_escaped(o, x->name);
    snprintf(text, sizeof text, "\":{\"dtype\":\"%s\",\"shape\":[",
             sizeof(eqnn_real) == 8 ? "F64" : "F32");
    eqnn__emit_text(o, text);
    if (x->rows != 1) snprintf(text, sizeof text, "%d,", x->rows);
    else text[0] = 0;
    eqnn__emit_text(o, text);
    snprintf(text, sizeof text, "%d],\"data_offsets\":[%llu,%llu]}", x->cols,
             (unsigned long long)begin, (unsigned long long)end);
    eqnn__emit_text(o, text);
}

static void eqnn__emit_header(eqnn__out *o, const eqnn__archive *a)
{
    size_t at = 0;
    eqnn__emit_text(o, "{");
    if (a->metas) eqnn__emit_text(o, "\"__metadata__\":{");
    for (int i = 0; i < a->metas; i++) {
        eqnn__emit_text(o, i ? ",\"" : "\"");
        eqnn__emit_escaped(o, a->meta[i].key);
        eqnn__emit_text(o, "\":\"");
        eqnn__emit_escaped(o, a->meta[i].text);
        eqnn__emit_text(o, "\"");
    }
    if (a->metas) eqnn__emit_text(o, a->items ? "}," : "}");
    for (int i = 0; i < a->items; i++) {
        size_t bytes = (size_t)a->item[i].rows * (size_t)a->item[i].cols * sizeof(eqnn_real);
        if (i) eqnn__emit_text(o, ",");
        eqnn__emit_entry(o, &a->item[i], at, at + bytes);
        at += bytes;
    }
    eqnn__emit_text(o, "}");
}

static void eqnn__emit_archive(eqnn__out *o, const void *user)
{
    const eqnn__archive *a = (const eqnn__archive *)user;
    unsigned char length[8];
    for (int k = 0; k < 8; k++) length[k] = (unsigned char)((uint64_t)a->header >> (8 * k));
    eqnn__emit(o, length, 8);
    eqnn__emit_header(o, a);
    while (o->length < 8 + a->header) eqnn__emit_text(o, " ");
    for (int i = 0; i < a->items; i++)
        eqnn__emit_numbers(o, a->item[i].data, (size_t)a->item[i].rows * (size_t)a->item[i].cols);
}

static int eqnn__archive_write(eqnn_ctx *c, const char *path, eqnn__archive *a)
{
    eqnn__out count;
    memset(&count, 0, sizeof count);
    eqnn__emit_header(&count, a);
    a->header = (count.length + 7) / 8 * 8;
    if (a->header <= EQNN__HEADER_MOST) return eqnn__write_whole(c, path, eqnn__emit_archive, a);
    eqnn__fail(c, "%s: %.300s: names of %lu bytes are more than a header holds", c->op, path,
               (unsigned long)a->header);
    return 0;
}

static int eqnn__text_order(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Are n texts valid and all different? sorted has room for n. */
static int eqnn__texts_differ(eqnn_ctx *c, const char *const *text, int n, const char **sorted)
{
    for (int i = 0; i < n; i++) {
        sorted[i] = text[i];
        if (!text[i] || !eqnn__text_valid(text[i]) || !strcmp(text[i], "__metadata__"))
            eqnn__fail(c, "file_write: name %d is missing, reserved or not UTF-8", i);
        if (c->failed) return 0;
    }
    if (n) qsort(sorted, (size_t)n, sizeof *sorted, eqnn__text_order);
    for (int i = 1; i < n; i++)
        if (!strcmp(sorted[i - 1], sorted[i]))
            eqnn__fail(c, "file_write: %.100s is there twice", sorted[i]);
    return !c->failed;
}

static int eqnn__file_write(eqnn_ctx *c, const char *path, const char *const *names,
                            eqnn_tensor *const *tensors, int n, const char *const *keys,
                            const char *const *texts, int metas)
{
    size_t most = (size_t)(n > metas ? n : metas) + 1;
    const char **sorted = (const char **)eqnn__step_alloc(c, most * sizeof *sorted);
    eqnn__item *item = (eqnn__item *)eqnn__step_alloc(c, most * sizeof *item);
    eqnn__meta *meta = (eqnn__meta *)eqnn__step_alloc(c, most * sizeof *meta);
    eqnn__archive a;
    if (!sorted || !item || !meta || !eqnn__texts_differ(c, names, n, sorted) ||
        !eqnn__texts_differ(c, keys, metas, sorted))
        return 0;
    for (int i = 0; i < n; i++) {
        if (!tensors[i]) eqnn__fail(c, "file_write: the tensor %.100s is missing (NULL)", names[i]);
        if (eqnn__bad(tensors[i], "file_write")) return 0;
        item[i].prefix = "";
        item[i].name = names[i];
        item[i].rows = tensors[i]->rows;
        item[i].cols = tensors[i]->cols;
        item[i].data = tensors[i]->data;
    }
    for (int i = 0; i < metas; i++) {
        if (!texts[i] || !eqnn__text_valid(texts[i]))
            eqnn__fail(c, "file_write: text %d is not UTF-8", i);
        meta[i].key = keys[i];
        meta[i].text = texts[i];
    }
    a.item = item;
    a.meta = meta;
    a.items = n;
    a.metas = metas;
    return !c->failed && eqnn__archive_write(c, path, &a);
}

EQNN_API int eqnn_file_write(eqnn_ctx *c, const char *path, const char *const *names,
                             eqnn_tensor *const *tensors, int n, const char *const *keys,
                             const char *const *texts, int metas)
{
    if (!c || c->failed) return 0;
    c->op = "file_write";
    if (n < 0 || metas < 0 || (n && (!names || !tensors)) || (metas && (!keys || !texts))) {
        eqnn__fail(c, "file_write: names, tensors, keys or texts are missing (NULL)");
        return 0;
    }
    eqnn_mark mark = eqnn_mark_make(c);
    int good = eqnn__file_write(c, path, names, tensors, n, keys, texts, metas);
    eqnn_rewind(mark, NULL);
    return good;
}

/* --- notes --- */

EQNN_API const char *eqnn_noted(const eqnn_ctx *c, const char *key)
{
    const eqnn__note *n = c && key && c->params ? c->params->notes : NULL;
    while (n && strcmp(n->key, key)) n = n->next;
    return n ? n->text : NULL;
}

static int eqnn__note_set(eqnn_ctx *c, const char *key, const char *text)
{
    struct eqnn__params *p = eqnn__params_get(c);
    eqnn__note **at = p ? &p->notes : NULL;
    if (!at) return 0;
    while (*at && strcmp((*at)->key, key)) at = &(*at)->next;
    char *copy = eqnn__heap_string(c, text);
    if (copy && !*at) {
        eqnn__note *n = (eqnn__note *)eqnn__keep_alloc(c, sizeof *n);
        if (n) n->key = eqnn__heap_string(c, key);
        if (n && n->key) *at = n;
    }
    if (!copy || !*at) {
        eqnn__heap_string_free(c, copy);
        return 0;
    }
    eqnn__heap_string_free(c, (*at)->text);
    (*at)->text = copy;
    return 1;
}

EQNN_API int eqnn_note(eqnn_ctx *c, const char *key, const char *text)
{
    if (!c || c->failed) return 0;
    c->op = "note";
    if (!key || !text || !eqnn__text_valid(key) || !eqnn__text_valid(text) ||
        !strncmp(key, "eqnn.", 5) || !strcmp(key, "format")) {
        eqnn__fail(c, "note: %.100s: needs a key (not eqnn.* or format) and a text, both UTF-8",
                   key ? key : "NULL");
        return 0;
    }
    return eqnn__note_set(c, key, text);
}

/* --- save --- */

/* Entries of a complete load that no parameter has claimed; first gets the name of one. */
static int eqnn__load_left(const eqnn__load *l, const char **first)
{
    int left = 0;
    for (int i = 0; !l->partial && i < l->file->count; i++) {
        const char *name = l->file->entry[i].e.name, *last = strrchr(name, '.');
        if (l->claimed[i] || !strncmp(name, "eqnn.", 5)) continue;
        if (!strcmp(last ? last + 1 : name, "num_batches_tracked")) continue; /* PyTorch's */
        if (!left++) *first = name;
    }
    return left;
}

static eqnn__meta *eqnn__meta_add(eqnn_ctx *c, eqnn__meta *m, const char *key, const char *text)
{
    (void)c;
    m->key = key;
    m->text = text;
    return m + 1;
}

/* What is saved as text: steps, tick, seed, when late parameters came, notes. Returns how many. */
static int eqnn__save_metas(eqnn_ctx *c, eqnn__meta *start)
{
    const struct eqnn__params *p = c->params;
    eqnn__meta *m = eqnn__meta_add(c, start, "format", "pt");
    for (const eqnn__note *n = p->notes; n; n = n->next) m = eqnn__meta_add(c, m, n->key, n->text);
    if (p->averaging) return (int)(m - start);
    m = eqnn__meta_add(c, m, "eqnn.seed", eqnn_format(c, "%llu", (unsigned long long)c->seed));
    m = eqnn__meta_add(c, m, "eqnn.tick", eqnn_format(c, "%llu", (unsigned long long)c->tick));
    for (int k = 0; k < EQNN__OPTIMIZERS; k++) {
        if (!p->steps[k]) continue;
        m = eqnn__meta_add(c, m, eqnn_format(c, "eqnn.%s.steps", eqnn__optimizer_names[k]),
                           eqnn_format(c, "%lld", (long long)p->steps[k]));
        for (int i = 0; i < p->trained_count; i++)
            if (p->trained[i]->born[k])
                m = eqnn__meta_add(c, m, eqnn_format(c, "eqnn.%s.born.%s", eqnn__optimizer_names[k],
                                                     p->trained[i]->name),
                                   eqnn_format(c, "%lld", (long long)p->trained[i]->born[k]));
    }
    return (int)(m - start);
}

/* The arrays: weights and buffers, then what optimizers know of them. */
static int eqnn__save_items(eqnn_ctx *c, eqnn__item *x)
{
    const struct eqnn__params *p = c->params;
    int n = 0;
    for (int k = -1; k < (p->averaging ? 0 : EQNN__STATES); k++)
        for (int i = 0; i < p->count; i++) {
            const eqnn__weight *w = p->all[i];
            const eqnn_real *state = k < 0 ? NULL : p->slab[w->slab].state[k];
            if (k >= 0 && !state) continue;
            x[n].prefix = k < 0 ? "" : eqnn__state_names[k];
            x[n].name = w->name;
            x[n].rows = w->rows;
            x[n].cols = w->cols;
            x[n].data = k < 0 ? w->tensor->data : state + w->offset;
            n++;
        }
    return n;
}

static int eqnn__save(eqnn_ctx *c, const char *path)
{
    const struct eqnn__params *p = c->params;
    size_t metas = 3 + (size_t)(2 * p->trained_count + 2);
    for (const eqnn__note *n = p->notes; n; n = n->next) metas++;
    eqnn__item *item = (eqnn__item *)eqnn__step_alloc(c, ((size_t)p->count + 1) *
                                                             (1 + EQNN__STATES) * sizeof *item);
    eqnn__meta *meta = (eqnn__meta *)eqnn__step_alloc(c, metas * sizeof *meta);
    eqnn__archive a;
    if (!item || !meta) return 0;
    a.item = item;
    a.meta = meta;
    a.items = eqnn__save_items(c, item);
    a.metas = eqnn__save_metas(c, meta);
    return !c->failed && eqnn__archive_write(c, path, &a);
}

EQNN_API int eqnn_save(eqnn_ctx *c, const char *path)
{
    const char *first = NULL;
    if (!c || c->failed) return 0;
    c->op = "save";
    if (c->owner != c)
        eqnn__fail(c, "save: a worker has no weights; save the context it was made for");
    for (const eqnn__load *l = c->params ? c->params->loads : NULL; l && !first; l = l->next)
        if (eqnn__load_left(l, &first))
            eqnn__fail(c,
                       "save: %.100s was loaded and not used yet; it would be lost: call the model "
                       "once, or "
                       "load with .partial",
                       first);
    if (c->failed || !eqnn__params_get(c)) return 0;
    eqnn_mark mark = eqnn_mark_make(c);
    int good = eqnn__save(c, path);
    eqnn_rewind(mark, NULL);
    return good;
}

/* --- load --- */

/* The entry of a load for prefix + name: the load's own prefix stands before its file's names. */
static const eqnn_entry *eqnn__load_find(const eqnn__load *l, const char *prefix, const char *name)
{
    char key[1100];
    size_t n = strlen(l->prefix);
    if (strncmp(name, l->prefix, n)) return NULL;
    snprintf(key, sizeof key, "%s%s", prefix, name + n);
    return eqnn_file_find(l->file, key);
}

static int64_t eqnn__meta_number(const eqnn_file *f, const char *key)
{
    const char *text = eqnn_file_meta(f, key);
    long long n = text ? strtoll(text, NULL, 10) : 0;
    return n > 0 ? (int64_t)n : 0;
}

/* Do the sizes of an entry make [rows,cols]: its first few (or none) rows, the rest cols? */
static int eqnn__entry_fits(const eqnn_entry *e, int rows, int cols)
{
    for (int split = 0; split <= e->dims; split++) {
        uint64_t a = 1, b = 1; /* what is more than an int holds stays so */
        for (int i = 0; i < e->dims; i++) {
            uint64_t *side = i < split ? &a : &b, n = (uint64_t)e->shape[i];
            *side = n && *side > INT_MAX / n ? (uint64_t)INT_MAX + 1 : *side * n;
        }
        if (a == (uint64_t)rows && b == (uint64_t)cols) return 1;
    }
    return 0;
}

static int eqnn__entry_check(eqnn_ctx *c, const eqnn_entry *e, const eqnn__weight *w)
{
    char shape[240] = "";
    if (eqnn__entry_fits(e, w->rows, w->cols)) return 1;
    for (int i = 0, n = 0; i < e->dims; i++)
        n += snprintf(shape + n, sizeof shape - (size_t)n, i ? ",%lld" : "%lld",
                      (long long)e->shape[i]);
    eqnn__fail(c, "load: %.200s is [%d,%d], in the file [%s]", e->name, w->rows, w->cols, shape);
    return 0;
}

static void eqnn__entry_fill(const eqnn_file *f, const eqnn_entry *e, eqnn_real *out)
{
    const eqnn__stored *s = (const eqnn__stored *)(const void *)e;
    for (size_t i = 0; i < e->count; i++) out[i] = (eqnn_real)eqnn__stored_value(f, s, i);
}

/* What optimizers remember of w; a parameter that they have not seen starts now. */
static int eqnn__claim_states(eqnn_ctx *c, eqnn__weight *w, const eqnn__load *l)
{
    struct eqnn__params *p = c->params;
    static const char *const born[EQNN__OPTIMIZERS] = { "eqnn.adam.born.", "eqnn.sgd.born." };
    int seen[EQNN__STATES] = { 0, 0, 0, 0 };
    for (int k = 0; k < EQNN__STATES; k++) {
        const eqnn_entry *e = eqnn__load_find(l, eqnn__state_names[k], w->name);
        if (!e) continue;
        if (!eqnn__entry_check(c, e, w) || !eqnn__slab_state(c, w->slab, k)) return 0;
        eqnn__entry_fill(l->file, e, p->slab[w->slab].state[k] + w->offset);
        seen[k] = 1;
    }
    for (int k = 0; l->optimizer && k < EQNN__OPTIMIZERS; k++) {
        char key[1100];
        snprintf(key, sizeof key, "%s%s", born[k], w->name + strlen(l->prefix));
        w->born[k] = seen[k == EQNN__BY_ADAM ? EQNN__MEAN : EQNN__VELOCITY]
                         ? eqnn__meta_number(l->file, key)
                         : p->steps[k];
    }
    return 1;
}

/* Fills w from the newest load that has it, or from one load only. 0 on error. */
static int eqnn__weight_claim(eqnn_ctx *c, eqnn__weight *w, eqnn__load *only)
{
    for (eqnn__load *l = only ? only : c->params->loads; l; l = only ? NULL : l->next) {
        const eqnn_entry *e = eqnn__load_find(l, "", w->name);
        if (!e) continue;
        if (!eqnn__entry_check(c, e, w)) return 0;
        eqnn__entry_fill(l->file, e, w->tensor->data);
        c->params->version++;
        l->claimed[(const eqnn__stored *)(const void *)e - l->file->entry] = 1;
        w->loaded = 1;
        eqnn_real *average = c->params->slab[w->slab].state[EQNN__AVERAGE];
        if (average)
            memcpy(average + w->offset, w->tensor->data, eqnn__weight_count(w) * sizeof *average);
        return l->weights_only || w->buffer || eqnn__claim_states(c, w, l);
    }
    return 1;
}

static void eqnn__load_free(eqnn_ctx *c, eqnn__load *l)
{
    if (!l) return;
    if (l->claimed) eqnn__try_heap(c, l->claimed, (size_t)l->file->count + 1, 0);
    eqnn_file_close(l->file);
    eqnn__heap_string_free(c, l->prefix);
    eqnn__try_heap(c, l, sizeof *l, 0);
}

static eqnn__load *eqnn__load_make(eqnn_ctx *c, const char *path, const eqnn_load_opts *o)
{
    eqnn_file *f = eqnn_file_open(c, path);
    eqnn__load *l = f ? (eqnn__load *)eqnn__heap(c, NULL, 0, sizeof *l) : NULL;
    if (!l) {
        eqnn_file_close(f);
        return NULL;
    }
    memset(l, 0, sizeof *l);
    l->file = f;
    l->partial = o->partial;
    l->weights_only = o->weights_only;
    l->prefix = eqnn__heap_string(c, o->prefix ? o->prefix : "");
    l->claimed = (unsigned char *)eqnn__heap(c, NULL, 0, (size_t)f->count + 1);
    if (l->prefix && l->claimed) {
        memset(l->claimed, 0, (size_t)f->count + 1);
        return l;
    }
    eqnn__load_free(c, l);
    return NULL;
}

/* Steps, tick and notes are the file's from now on. */
static int eqnn__load_progress(eqnn_ctx *c, eqnn__load *l)
{
    static const char *const key[EQNN__OPTIMIZERS] = { "eqnn.adam.steps", "eqnn.sgd.steps" };
    struct eqnn__params *p = c->params;
    const char *tick = eqnn_file_meta(l->file, "eqnn.tick");
    if (tick) c->tick = (uint64_t)strtoull(tick, NULL, 10);
    for (int k = 0; k < EQNN__OPTIMIZERS; k++) {
        if (!eqnn_file_meta(l->file, key[k])) continue;
        p->steps[k] = eqnn__meta_number(l->file, key[k]);
        p->resumed[k] = !p->optimizer[k];
        l->optimizer = 1;
    }
    for (int i = 0; i < l->file->metas; i++) {
        const char *k = l->file->meta[i].key;
        if (!strncmp(k, "eqnn.", 5) || !strcmp(k, "format")) continue;
        if (!eqnn__note_set(c, k, l->file->meta[i].text)) return 0;
    }
    return 1;
}

/* First all sizes are checked, then everything is filled: a file that does not fit changes none. */
static int eqnn__load_apply(eqnn_ctx *c, eqnn__load *l)
{
    struct eqnn__params *p = c->params;
    for (int i = 0; i < p->count; i++) {
        const eqnn_entry *e = eqnn__load_find(l, "", p->all[i]->name);
        if (e && !eqnn__entry_check(c, e, p->all[i])) return 0;
    }
    if (!l->weights_only && !eqnn__load_progress(c, l)) return 0;
    for (int i = 0; i < p->count; i++)
        if (!eqnn__weight_claim(c, p->all[i], l)) return 0;
    if (l->partial) p->lenient = 1;
    else p->strict = 1;
    return 1;
}

static int eqnn__loads_check(eqnn_ctx *c);

EQNN_API int eqnn_load(eqnn_ctx *c, const char *path, const eqnn_load_opts *opts)
{
    eqnn_load_opts o;
    if (!c || c->failed) return 0;
    c->op = "load";
    memset(&o, 0, sizeof o);
    if (opts) o = *opts;
    if (c->owner != c) eqnn__fail(c, "load: a worker only reads the weights");
    else if (c->params && c->params->averaging)
        eqnn__fail(c, "load: averaged weights are in use; eqnn_use_average(c, 0) first");
    if (c->failed || !eqnn__params_get(c)) return 0;
    eqnn__load *l = eqnn__load_make(c, path, &o);
    if (!l) return 0;
    if (!eqnn__load_apply(c, l)) {
        eqnn__load_free(c, l);
        return 0;
    }
    l->next = c->params->loads;
    c->params->loads = l;
    return !c->params->closed || eqnn__loads_check(c);
}

/* Is everything that was loaded in use, and everything in use loaded? Else an error that names
   them. Once names are closed the files are let go, unless a prefix is open. */
static int eqnn__loads_check(eqnn_ctx *c)
{
    struct eqnn__params *p = c->params;
    const char *first = NULL;
    int missing = 0, open = 0;
    for (eqnn__load *l = p->loads; l; l = l->next) {
        int left = eqnn__load_left(l, &first);
        if (left)
            eqnn__fail(
                c,
                "load: %.200s: %d entries belong to no parameter, the first is %.200s (.partial "
                "allows it)",
                l->file->path, left, first);
    }
    for (int i = 0; p->strict && !p->lenient && i < p->count; i++)
        if (!p->all[i]->loaded && !missing++) first = p->all[i]->name;
    if (missing)
        eqnn__fail(c,
                   "load: %d parameters were in no file, the first is %.200s (.partial allows it)",
                   missing, first);
    for (const eqnn__pattern *q = p->patterns; q; q = q->next) open |= q->kind == 2;
    while (!c->failed && p->closed && !open && p->loads) {
        eqnn__load *next = p->loads->next;
        eqnn__load_free(c, p->loads);
        p->loads = next;
    }
    return !c->failed;
}

EQNN_API int eqnn_loaded(eqnn_ctx *c)
{
    if (!c || c->failed) return 0;
    c->op = "loaded";
    return !c->owner->params || c->owner != c || eqnn__loads_check(c);
}

/* Called by the first optimizer step. */
static EQNN__MAYBE_UNUSED int eqnn__names_close(eqnn_ctx *c)
{
    if (c->params->closed) return 1;
    c->params->closed = 1;
    return eqnn__loads_check(c);
}

/* ------------------------------------------------------------------------------------------------
   8 >>layers
   ---------------------------------------------------------------------------------------------- */

/* x when its numbers are invariant; NULL and an error when they turn: a weight for every column
   would break the symmetry. */
static eqnn_tensor *eqnn__plain(eqnn_tensor *x, const char *op, const char *name,
                                const char *instead)
{
    if (eqnn__bad(x, op)) return NULL;
    if (!name)
        return eqnn__fail(x->ctx, "%s: a layer in \"%s\" has no name (NULL)", op, x->ctx->scope);
    if (!eqnn__invariant(x->label))
        return eqnn__fail(
            x->ctx, "%s in %s%s: %.200s is not invariant; it would break the symmetry; use %s", op,
            x->ctx->scope, name, eqnn__label_text(x->label), instead);
    return x->label ? eqnn_as(x, NULL) : x;
}

/* --- linear --- */

/* A zeroed struct stands for torch's; what it needs to know is the number of inputs. */
static eqnn_init eqnn__linear_init(const eqnn_init *o, int in, int out)
{
    eqnn_init init = *o;
    if (init.kind == EQNN_INIT_NORMAL && !(init.scale < 0 || init.scale > 0))
        init.kind = EQNN_INIT_TORCH;
    if (init.fan_in <= 0) init.fan_in = in;
    if (init.fan_out <= 0) init.fan_out = out;
    return init;
}

EQNN_API eqnn_tensor *eqnn_linear(eqnn_tensor *x, const char *name, int out,
                                  const eqnn_linear_opts *opts)
{
    eqnn_linear_opts o;
    memset(&o, 0, sizeof o);
    if (opts) o = *opts;
    x = eqnn__plain(x, "linear", name, "eqnn_irreps_linear");
    if (!x) return NULL;
    if (out < 0) return eqnn__fail(x->ctx, "linear in %s%s: %d outputs", x->ctx->scope, name, out);
    eqnn_init weight = eqnn__linear_init(&o.weight, x->cols, out);
    eqnn_init bias = eqnn__linear_init(&o.bias, x->cols, out);
    x = eqnn_enter(x, name);
    if (!x) return NULL;
    eqnn_tensor *W = eqnn_param(x->ctx, "weight", out, x->cols, &weight);
    eqnn_tensor *b = o.no_bias ? NULL : eqnn_param(x->ctx, "bias", 1, out, &bias);
    eqnn_tensor *y = eqnn_matmul_t(x, W, 0, 1);
    return eqnn_leave(o.no_bias ? y : eqnn_add(y, b));
}

/* --- mlp --- */

/* The next of a list "64, 64,36": 1 and its value, 0 at the end, -1 when it is none. */
static int eqnn__next_width(const char **s, int *width)
{
    char *end;
    while (**s == ' ') (*s)++;
    if (!**s) return 0;
    long n = strtol(*s, &end, 10);
    if (end == *s || n < 1 || n > INT_MAX) return -1;
    while (*end == ' ') end++;
    if (*end == ',' && !end[1]) return -1;
    if (*end == ',') end++;
    else if (*end) return -1;
    *s = end;
    *width = (int)n;
    return 1;
}

EQNN_API eqnn_tensor *eqnn_mlp(eqnn_tensor *x, const char *name, const char *widths,
                               const eqnn_mlp_opts *opts)
{
    eqnn_mlp_opts o;
    memset(&o, 0, sizeof o);
    if (opts) o = *opts;
    if (o.act == EQNN_IDENTITY) o.act = EQNN_SILU;
    double p = o.act == EQNN_LEAKY_RELU ? 0.01 : o.act == EQNN_ELU ? 1 : 0; /* torch's defaults */
    x = eqnn__plain(x, "mlp", name, "eqnn_irreps_linear and eqnn_gate");
    if (!x) return NULL;
    if (!widths)
        return eqnn__fail(x->ctx, "mlp in %s%s: the widths are missing (NULL)", x->ctx->scope,
                          name);
    const char *at = widths;
    int width = 0, more = eqnn__next_width(&at, &width);
    x = eqnn_enter(x, name);
    for (int i = 0; x && more > 0; i++) {
        char layer[16];
        snprintf(layer, sizeof layer, "%d", i);
        x = eqnn_linear(x, layer, width, &o.layer);
        more = eqnn__next_width(&at, &width);
        if (x && !o.linear && (more > 0 || o.act_last)) x = eqnn_map(x, o.act, p, 0);
    }
    if (x && more < 0)
        return eqnn__fail(
            x->ctx,
            "mlp in %s: \"%.100s\" is no list of widths like \"64,64,36\", from \"%.40s\" on",
            x->ctx->scope, widths, at);
    return eqnn_leave(x);
}

EQNN_API eqnn_tensor *eqnn_embedding(eqnn_ctx *c, eqnn_ints *index, const char *name, int entries,
                                     int cols, const eqnn_init *init)
{
    if (!c || c->failed) return NULL;
    c->op = "embedding";
    if (!index || !name)
        return eqnn__fail(c, "embedding: the %s is missing (NULL)", index ? "name" : "index");
    if (index->range <= 0 && index->count > 0)
        return eqnn__fail(
            c, "embedding in %s%s: make the index with its range, the number of entries (%d)",
            c->scope, name, entries);
    if (index->range > entries)
        return eqnn__fail(c, "embedding in %s%s: the index goes to %d, there are %d entries",
                          c->scope, name, index->range - 1, entries);
    if (!eqnn__scope_push(c, name)) return NULL;
    return eqnn_leave(eqnn_take(eqnn_param(c, "weight", entries, cols, init), index));
}

/* --- normalisation --- */

static eqnn_norm_opts eqnn__norm_defaults(const eqnn_norm_opts *opts)
{
    eqnn_norm_opts o;
    memset(&o, 0, sizeof o);
    if (opts) o = *opts;
    if (!(o.eps > 0)) o.eps = 1e-5;
    if (!(o.momentum > 0)) o.momentum = 0.1;
    return o;
}

/* y "weight" + "bias" */
static eqnn_tensor *eqnn__norm_affine(eqnn_tensor *y, const eqnn_norm_opts *o)
{
    eqnn_init ones;
    if (!y || o->no_affine) return y;
    memset(&ones, 0, sizeof ones);
    ones.kind = EQNN_INIT_ONES;
    eqnn_tensor *weight = eqnn_param(y->ctx, "weight", 1, y->cols, &ones);
    ones.kind = EQNN_INIT_ZEROS;
    return eqnn_affine(y, weight, eqnn_param(y->ctx, "bias", 1, y->cols, &ones));
}

/* y = (x - mean) / sqrt(var + eps) weight + bias, mean and variance (not corrected) of each row */
EQNN_API eqnn_tensor *eqnn_layer_norm(eqnn_tensor *x, const char *name, const eqnn_norm_opts *opts)
{
    eqnn_norm_opts o = eqnn__norm_defaults(opts);
    x = eqnn_enter(eqnn__plain(x, "layer_norm", name, "a norm per irrep"), name);
    if (!x) return NULL;
    eqnn_tensor *centred = eqnn_sub(x, eqnn_mean_cols(x));
    eqnn_tensor *var = eqnn_mean_cols(eqnn_square(centred));
    eqnn_tensor *y = eqnn_mul(centred, eqnn_rsqrt(eqnn_shift(var, o.eps)));
    return eqnn_leave(eqnn__norm_affine(y, &o));
}

/* 1 / standard deviation */
static eqnn_tensor *eqnn__batch_scale(eqnn_tensor *var, const eqnn_norm_opts *o)
{
    if (!var || !o->clamp) return eqnn_rsqrt(eqnn_shift(var, o->eps));
    return eqnn_rsqrt(eqnn_max(var, eqnn_full(var->ctx, 1, 1, o->eps)));
}

/* Batch statistics of x; they are also filed for the running ones, the variance with n - 1 for n as
   PyTorch does. A single row tells nothing of its variance. */
static eqnn_tensor *eqnn__batch_centre(eqnn_tensor *x, eqnn_tensor *mean, eqnn_tensor *var,
                                       const eqnn_norm_opts *o)
{
    int n = x->rows;
    eqnn_tensor *batch_mean = eqnn_mean_rows(x);
    eqnn_tensor *centred = eqnn_sub(x, batch_mean);
    eqnn_tensor *batch_var = eqnn_mean_rows(eqnn_square(centred));
    if (!batch_var) return NULL;
    eqnn_file_update(mean, batch_mean, o->momentum);
    int old = eqnn_recording(x->ctx, 0);
    if (n > 1) eqnn_file_update(var, eqnn_scale(batch_var, (double)n / (n - 1)), o->momentum);
    eqnn_recording(x->ctx, old);
    return eqnn_mul(centred, eqnn__batch_scale(batch_var, o));
}

/* Ioffe and Szegedy 2015, arXiv:1502.03167; y as for layer_norm, statistics of each column */
EQNN_API eqnn_tensor *eqnn_batch_norm(eqnn_tensor *x, const char *name, const eqnn_norm_opts *opts)
{
    eqnn_norm_opts o = eqnn__norm_defaults(opts);
    eqnn_init ones;
    memset(&ones, 0, sizeof ones);
    ones.kind = EQNN_INIT_ONES;
    x = eqnn_enter(eqnn__plain(x, "batch_norm", name, "a norm per irrep"), name);
    if (!x) return NULL;
    eqnn_tensor *mean = eqnn_buffer(x->ctx, "running_mean", 1, x->cols, NULL), *y;
    eqnn_tensor *var = eqnn_buffer(x->ctx, "running_var", 1, x->cols, &ones);
    if (!mean || !var) return NULL;
    if (x->ctx->training && x->rows > 0) y = eqnn__batch_centre(x, mean, var, &o);
    else y = eqnn_mul(eqnn_sub(x, mean), eqnn__batch_scale(var, &o));
    return eqnn_leave(eqnn__norm_affine(y, &o));
}

/* ------------------------------------------------------------------------------------------------
   9 >>training
   ---------------------------------------------------------------------------------------------- */

/* What the two optimizers have in common; what they remember lies in the slabs (section 7). */
typedef struct eqnn__optimizer {
    eqnn_ctx *ctx;
    int kind;            /* EQNN__BY_ADAM or EQNN__BY_SGD */
    eqnn__update u;
    double clip, average;
} eqnn__optimizer;
struct eqnn_adam { eqnn__optimizer o; };
struct eqnn_sgd { eqnn__optimizer o; };

/* --- making --- */

static eqnn_adam_opts eqnn__adam_defaults(const eqnn_adam_opts *opts)
{
    eqnn_adam_opts o;
    memset(&o, 0, sizeof o);
    if (opts) o = *opts;
    if (!(o.rate < 0 || o.rate > 0)) o.rate = 1e-3;
    if (!(o.beta1 < 0 || o.beta1 > 0)) o.beta1 = 0.9;
    if (!(o.beta2 < 0 || o.beta2 > 0)) o.beta2 = 0.999;
    if (!(o.eps < 0 || o.eps > 0)) o.eps = 1e-8;
    return o;
}

static int eqnn__optimizer_states(const eqnn__optimizer *o, int states[3])
{
    int n = 0;
    if (o->kind == EQNN__BY_ADAM) {
        states[n++] = EQNN__MEAN;
        states[n++] = EQNN__SQUARE;
    } else if (o->u.momentum > 0) {
        states[n++] = EQNN__VELOCITY;
    }
    if (o->average > 0) states[n++] = EQNN__AVERAGE;
    return n;
}

/* A new optimizer starts from nothing, unless a load brought what it is to continue. */
static void eqnn__optimizer_start(eqnn_ctx *c, eqnn__optimizer *o)
{
    struct eqnn__params *p = c->params;
    int states[3], n = eqnn__optimizer_states(o, states);
    int fresh = !p->resumed[o->kind];
    for (int i = 0; fresh && i < p->slabs; i++)
        for (int k = 0; k < n; k++) {
            eqnn__slab *s = &p->slab[i];
            if (!s->state[states[k]]) continue;
            if (states[k] == EQNN__AVERAGE)
                memcpy(s->state[EQNN__AVERAGE], s->value, s->used * sizeof *s->value);
            else memset(s->state[states[k]], 0, s->size * sizeof *s->value);
        }
    for (int i = 0; fresh && i < p->trained_count; i++) p->trained[i]->born[o->kind] = 0;
    if (fresh) p->steps[o->kind] = 0;
    p->resumed[o->kind] = 0;
    p->optimizer[o->kind] = o;
}

static int eqnn__optimizer_ready(eqnn_ctx *c, const char *op)
{
    if (!c || c->failed) return 0;
    c->op = op;
    if (c->owner != c)
        eqnn__fail(c, "%s: a worker has no weights; step the context it was made for", op);
    else if (c->params && c->params->averaging)
        eqnn__fail(c, "%s: averaged weights are in use; eqnn_use_average(c, 0) first", op);
    return !c->failed && eqnn__params_get(c);
}

EQNN_API eqnn_adam *eqnn_adam_make(eqnn_ctx *c, const eqnn_adam_opts *opts)
{
    eqnn_adam_opts o = eqnn__adam_defaults(opts);
    if (!eqnn__optimizer_ready(c, "adam")) return NULL;
    if (!(o.rate > 0 && o.beta1 > 0 && o.beta1 < 1 && o.beta2 > 0 && o.beta2 < 1 && o.eps > 0 &&
          o.decay >= 0 && o.l2 >= 0 && o.clip >= 0 && o.average >= 0 && o.average < 1)) {
        eqnn__fail(c,
                   "adam: an option is out of range: rate %g, beta1 %g, beta2 %g, eps %g, decay "
                   "%g, l2 %g, "
                   "clip %g, average %g",
                   o.rate, o.beta1, o.beta2, o.eps, o.decay, o.l2, o.clip, o.average);
        return NULL;
    }
    eqnn_adam *adam = (eqnn_adam *)eqnn__keep_alloc(c, sizeof *adam);
    if (!adam) return NULL;
    adam->o.ctx = c;
    adam->o.kind = EQNN__BY_ADAM;
    adam->o.clip = o.clip;
    adam->o.average = o.average;
    adam->o.u.kind = EQNN__ADAM;
    adam->o.u.rate = o.rate;
    adam->o.u.beta1 = o.beta1;
    adam->o.u.beta2 = o.beta2;
    adam->o.u.eps = o.eps;
    adam->o.u.decay = o.decay;
    adam->o.u.l2 = o.l2;
    eqnn__optimizer_start(c, &adam->o);
    return adam;
}

EQNN_API eqnn_sgd *eqnn_sgd_make(eqnn_ctx *c, const eqnn_sgd_opts *opts)
{
    eqnn_sgd_opts o;
    memset(&o, 0, sizeof o);
    if (opts) o = *opts;
    if (!(o.rate < 0 || o.rate > 0)) o.rate = 1e-2;
    if (!eqnn__optimizer_ready(c, "sgd")) return NULL;
    if (!(o.rate > 0 && o.momentum >= 0 && o.momentum < 1 && o.l2 >= 0 && o.clip >= 0 &&
          o.average >= 0 && o.average < 1)) {
        eqnn__fail(
            c, "sgd: an option is out of range: rate %g, momentum %g, l2 %g, clip %g, average %g",
            o.rate, o.momentum, o.l2, o.clip, o.average);
        return NULL;
    }
    eqnn_sgd *sgd = (eqnn_sgd *)eqnn__keep_alloc(c, sizeof *sgd);
    if (!sgd) return NULL;
    sgd->o.ctx = c;
    sgd->o.kind = EQNN__BY_SGD;
    sgd->o.clip = o.clip;
    sgd->o.average = o.average;
    sgd->o.u.kind = EQNN__SGD;
    sgd->o.u.rate = o.rate;
    sgd->o.u.momentum = o.momentum;
    sgd->o.u.nesterov = o.nesterov;
    sgd->o.u.l2 = o.l2;
    eqnn__optimizer_start(c, &sgd->o);
    return sgd;
}

/* --- the gradient as a whole --- */

/* Sum of the squares of all gradients, in double. */
static double eqnn__gradient_squares(eqnn_ctx *c)
{
    double sum = 0;
    for (int i = 0; i < c->params->slabs; i++) {
        const eqnn__slab *s = &c->params->slab[i];
        double part = 0;
        if (s->gradient && s->used) c->k->total(&c->device, 1, s->used, s->gradient, &part);
        sum += part;
    }
    return sum;
}

EQNN_API double eqnn_gradient_norm(eqnn_ctx *c)
{
    if (!c || c->failed) return NAN;
    return c->params ? sqrt(eqnn__gradient_squares(c)) : 0;
}

static int eqnn__finite(eqnn_ctx *c, const eqnn_real *x, size_t n)
{
    c->device.flag = 0;
    if (n) c->k->check(&c->device, n, x);
    return !c->device.flag;
}

/* 1 when every gradient is finite; else an error that names a parameter, and all gradients and
   filed updates of this step are dropped. */
static int eqnn__gradients_finite(eqnn_ctx *c, int64_t step)
{
    struct eqnn__params *p = c->params;
    int bad = 0;
    for (int i = 0; i < p->slabs; i++)
        if (p->slab[i].gradient) bad |= !eqnn__finite(c, p->slab[i].gradient, p->slab[i].used);
    for (int i = 0; bad && i < p->trained_count; i++) {
        const eqnn__weight *w = p->trained[i];
        const eqnn_real *g = p->slab[w->slab].gradient;
        if (g && !eqnn__finite(c, g + w->offset, eqnn__weight_count(w)))
            eqnn__fail(c,
                       "%s: step %lld: the gradient of %.200s is not finite; nothing was updated",
                       c->op, (long long)step, w->name);
    }
    if (!bad) return 1;
    eqnn_zero_gradients(c);
    eqnn__params_rewind(c, 0);
    return 0;
}

EQNN_API void eqnn_set_allreduce(eqnn_ctx *c, eqnn_allreduce f, void *user)
{
    if (!c || c->failed || !eqnn__params_get(c)) return;
    c->params->allreduce = f;
    c->params->allreduce_user = user;
}

/* Replaces gradients and filed updates by their means over all ranks. */
static int eqnn__allreduce_all(eqnn_ctx *c)
{
    struct eqnn__params *p = c->params;
    int good = 1;
    if (!p->allreduce) return 1;
    for (int i = 0; good && i < p->slabs; i++)
        if (!p->slab[i].buffer && p->slab[i].used)
            good = p->allreduce(p->allreduce_user, p->slab[i].gradient, p->slab[i].used);
    if (good && p->pending_used)
        good = p->allreduce(p->allreduce_user, p->pending, p->pending_used);
    if (!good) eqnn__fail(c, "%s: the allreduce callback failed", c->op);
    return good;
}

/* --- a step --- */

/* Can the two be updated by one call? */
static int eqnn__alike(const eqnn__weight *a, const eqnn__weight *b, int kind)
{
    return a->slab == b->slab && a->frozen == b->frozen && !(a->rate < b->rate) &&
           !(a->rate > b->rate) && a->born[kind] == b->born[kind];
}

/* Updates the parameters from first to last, which lie side by side. */
static void eqnn__update_run(eqnn__optimizer *o, const eqnn__weight *first,
                             const eqnn__weight *last, double scale)
{
    eqnn_ctx *c = o->ctx;
    const eqnn__slab *s = &c->params->slab[first->slab];
    size_t at = first->offset, n = last->offset + eqnn__weight_count(last) - at;
    double t = (double)(c->params->steps[o->kind] + 1 - first->born[o->kind]);
    eqnn__update u = o->u;
    u.rate *= first->rate;
    u.grad_scale = scale;
    u.correct1 = 1 - eqnn__power(u.beta1, t);
    u.correct2 = 1 - eqnn__power(u.beta2, t);
    eqnn_real *s1 = s->state[o->kind == EQNN__BY_ADAM ? EQNN__MEAN : EQNN__VELOCITY];
    eqnn_real *s2 = s->state[EQNN__SQUARE];
    if (o->kind == EQNN__BY_SGD) {
        s2 = NULL;
        if (!(u.momentum > 0)) s1 = NULL;
    }
    if (n) c->k->update(&c->device, &u, n, s->value + at, s->gradient + at, s1 ? s1 + at : NULL,
                        s2 ? s2 + at : NULL);
}

static void eqnn__update_all(eqnn__optimizer *o, double scale)
{
    const struct eqnn__params *p = o->ctx->params;
    for (int i = 0, j; i < p->trained_count; i = j) {
        j = i + 1;
        while (j < p->trained_count && eqnn__alike(p->trained[i], p->trained[j], o->kind)) j++;
        if (!p->trained[i]->frozen) eqnn__update_run(o, p->trained[i], p->trained[j - 1], scale);
    }
}

/* average <- decay average + (1 - decay) weights */
static void eqnn__update_average(eqnn__optimizer *o)
{
    eqnn_ctx *c = o->ctx;
    eqnn__update u;
    memset(&u, 0, sizeof u);
    u.kind = EQNN__EMA;
    u.beta1 = o->average;
    for (int i = 0; i < c->params->slabs; i++) {
        const eqnn__slab *s = &c->params->slab[i];
        if (s->state[EQNN__AVERAGE] && s->used)
            c->k->update(&c->device, &u, s->used, s->value, NULL, s->state[EQNN__AVERAGE], NULL);
    }
}

/* Everything that must hold before anything is changed. */
static int eqnn__step_ready(eqnn__optimizer *o)
{
    eqnn_ctx *c = o->ctx;
    int states[3], n = eqnn__optimizer_states(o, states);
    if (!eqnn__optimizer_ready(c, eqnn__optimizer_names[o->kind])) return 0;
    if (c->params->optimizer[o->kind] != o)
        eqnn__fail(c, "%s: a later optimizer of this context has replaced this one", c->op);
    if (c->failed || !eqnn__names_close(c)) return 0;
    for (int i = 0; i < c->params->slabs; i++) {
        if (c->params->slab[i].buffer) continue;
        for (int k = 0; k < n; k++)
            if (!eqnn__slab_state(c, i, states[k])) return 0;
        if (!eqnn__slab_gradient(c, i)) return 0;
    }
    return eqnn__allreduce_all(c) && eqnn__gradients_finite(c, c->params->steps[o->kind]);
}

static int eqnn__optimizer_step(eqnn__optimizer *o)
{
    double scale = 1;
    if (!eqnn__step_ready(o)) return 0;
    eqnn_ctx *c = o->ctx;
    if (o->clip > 0) { /* torch's clip_grad_norm_ */
        scale = o->clip / (sqrt(eqnn__gradient_squares(c)) + 1e-6);
        if (scale > 1) scale = 1;
    }
    eqnn__update_all(o, scale);
    if (o->average > 0) eqnn__update_average(o);
    c->params->steps[o->kind]++;
    c->params->version++;
    eqnn_commit(c);
    eqnn_zero_gradients(c);
    return 1;
}

EQNN_API int eqnn_adam_step(eqnn_adam *o) { return o ? eqnn__optimizer_step(&o->o) : 0; }
EQNN_API int eqnn_sgd_step(eqnn_sgd *o) { return o ? eqnn__optimizer_step(&o->o) : 0; }

static void eqnn__optimizer_rate(eqnn__optimizer *o, double rate)
{
    if (rate >= 0 && rate <= DBL_MAX) o->u.rate = rate;
    else eqnn__fail(o->ctx, "%s: %g is no rate", eqnn__optimizer_names[o->kind], rate);
}

EQNN_API void eqnn_adam_rate(eqnn_adam *o, double rate)
{
    if (o) eqnn__optimizer_rate(&o->o, rate);
}

EQNN_API void eqnn_sgd_rate(eqnn_sgd *o, double rate)
{
    if (o) eqnn__optimizer_rate(&o->o, rate);
}

EQNN_API int64_t eqnn_adam_steps(const eqnn_adam *o)
{
    return o ? o->o.ctx->params->steps[EQNN__BY_ADAM] : 0;
}
EQNN_API int64_t eqnn_sgd_steps(const eqnn_sgd *o)
{
    return o ? o->o.ctx->params->steps[EQNN__BY_SGD] : 0;
}

/* --- the average --- */

/* The numbers change places, so that every pointer to a weight stays good. */
static void eqnn__swap(eqnn_real *a, eqnn_real *b, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        eqnn_real t = a[i];
        a[i] = b[i];
        b[i] = t;
    }
}

EQNN_API int eqnn_use_average(eqnn_ctx *c, int on)
{
    if (!c || c->failed) return 0;
    c->op = "use_average";
    struct eqnn__params *p = c->params;
    int there = 0;
    for (int i = 0; p && i < p->slabs; i++) there |= p->slab[i].state[EQNN__AVERAGE] != NULL;
    if (!there || c->owner != c) {
        eqnn__fail(c, "use_average: there is no average; give the optimizer .average, and a step");
        return 0;
    }
    if ((on != 0) == p->averaging) return 1;
    for (int i = 0; i < p->slabs; i++) {
        eqnn__slab *s = &p->slab[i];
        if (s->state[EQNN__AVERAGE]) eqnn__swap(s->value, s->state[EQNN__AVERAGE], s->used);
    }
    p->averaging = on != 0;
    p->version++;
    return 1;
}

/* --- schedules --- */

EQNN_API double eqnn_schedule_rate(const eqnn_schedule *s, int64_t step)
{
    if (!s) return NAN;
    double warm = step < s->warmup ? (double)step / (double)s->warmup : 1;
    int64_t first = s->warmup > 0 && !(s->overlap && s->kind == EQNN_COSINE) ? s->warmup : 0;
    if (step < first) return s->rate * warm;
    double t = (double)(step - first);
    double factor = s->factor > 0 ? s->factor : s->kind == EQNN_STEPS ? 0.1 : 1;
    double length = (double)(s->total - first);
    switch (s->kind) {
    case EQNN_STEPS:
        return s->every > 0 ? s->rate * eqnn__power(factor, floor(t / (double)s->every)) : s->rate;
    case EQNN_EXPONENTIAL: return s->rate * eqnn__power(factor, t);
    case EQNN_COSINE:
        if (t >= length) t = length > 0 ? 0 : 1;
        else t = (1 + eqnn__sin_quarter(EQNN__PI * t / length, 1)) / 2; /* from 1 to 0 */
        t = s->last + (s->rate - s->last) * t;
        return warm * (t > s->least ? t : s->least);
    default: return s->rate;
    }
}

/* torch's ReduceLROnPlateau: a value is good when it is below best (1 - threshold). */
EQNN_API double eqnn_plateau_rate(eqnn_plateau *p, double loss)
{
    if (!p) return NAN;
    double threshold = p->threshold > 0 ? p->threshold : 1e-4,
           factor = p->factor > 0 ? p->factor : 0.1;
    if (!p->started || loss < p->best * (1 - threshold)) {
        p->started = loss <= DBL_MAX; /* not NaN */
        p->best = loss;
        p->bad = 0;
    } else if (++p->bad > (p->patience > 0 ? p->patience : 10)) {
        p->bad = 0;
        p->rate = p->rate * factor > p->min_rate ? p->rate * factor : p->min_rate;
    }
    return p->rate;
}

/* --- ordinary differential equations --- */

#define EQNN__ODE_EPS (sizeof(eqnn_real) == 8 ? DBL_EPSILON : (double)FLT_EPSILON)
typedef struct eqnn__ode {
    eqnn_ctx *c;
    eqnn_field f;
    void *user;
    eqnn_ode_opts o;
    eqnn_ode_stats stats;
    int keep;             /* recording: the tensors of every step stay              */
    int watch;            /* columns the error is measured in; 0: all               */
    const double *times;
    int n, next;          /* the output to come                                     */
    eqnn_tensor **out;
    eqnn_tensor *y, *k;   /* the state, and the field there                         */
    double t;
} eqnn__ode;

static eqnn_ode_opts eqnn__ode_defaults(const eqnn_ode_opts *opts)
{
    eqnn_ode_opts o;
    memset(&o, 0, sizeof o);
    if (opts) o = *opts;
    if (!(o.rtol > 0)) o.rtol = 1e-4;
    if (!(o.atol > 0)) o.atol = 1.4e-8;
    if (!(o.solve > 0)) o.solve = 4 * EQNN__ODE_EPS;
    if (o.max_steps <= 0) o.max_steps = 10000;
    return o;
}

/* f(y, t). Where nothing is recorded all that f made is forgotten but its value. */
static eqnn_tensor *eqnn__ode_field(eqnn__ode *s, eqnn_tensor *y, double t)
{
    eqnn_ctx *c = s->c;
    if (!y || c->failed) return NULL;
    eqnn_mark m = eqnn_mark_make(c);
    eqnn_tensor *k = s->f(y, t, s->user);
    s->stats.evaluations++;
    if (!k) return c->failed ? NULL : eqnn__fail(c, "ode: the field returned NULL at t = %g", t);
    if (eqnn__bad2(y, k, "ode")) return NULL;
    if (k->rows != y->rows || k->cols != y->cols)
        return eqnn__fail(c, "ode: the field gave [%d,%d], y is [%d,%d]", k->rows, k->cols, y->rows,
                          y->cols);
    if (!eqnn__label_same(k->label, y->label) &&
        !(eqnn__invariant(k->label) && eqnn__invariant(y->label)))
        return eqnn__fail(c, "ode: the field gave %.200s, y is %.200s: they do not turn alike",
                          eqnn__label_text(k->label), eqnn__label_text(y->label));
    return s->keep ? k : eqnn_rewind(m, k);
}

/* y + h sum over i of w_i k_i; the small terms are summed first, so that y is rounded once. */
static eqnn_tensor *eqnn__ode_sum(eqnn_tensor *y, double h, const double *w, eqnn_tensor *const *k,
                                  int n)
{
    eqnn_tensor *d = NULL;
    for (int i = 0; i < n; i++) {
        if (!y || !k[i]) return NULL;
        if (w[i] == 0) continue;
        if (d) d = eqnn__two(d, k[i], EQNN__AXPBY, EQNN__OP_AXPBY, 1, h * w[i], y->label);
        else d = eqnn__scale(k[i], h * w[i], 0, "ode");
        if (!d) return NULL;
    }
    return d ? eqnn__two(y, d, EQNN__ADD, EQNN__OP_AXPBY, 1, 1, y->label) : y;
}

/* Where a result goes: recorded, the tensor itself; else its numbers, into memory that stays. */
static void eqnn__ode_put(const eqnn__ode *s, eqnn_tensor **slot, eqnn_tensor *x)
{
    if (!x || !*slot) return;
    if (s->keep) *slot = x;
    else memcpy((*slot)->data, x->data, eqnn__count(x) * sizeof *x->data);
}

static double eqnn__ode_rms(eqnn_tensor *x)
{
    double sum = NAN;
    if (!x) return NAN;
    if (!eqnn__count(x)) return 0;
    x->ctx->k->total(&x->ctx->device, 1, eqnn__count(x), x->data, &sum);
    return sqrt(sum / (double)eqnn__count(x));
}

/* What an error is compared with: the numbers themselves, or the size of a row that turns. */
static eqnn_tensor *eqnn__ode_size(eqnn_tensor *y)
{
    if (!y || eqnn__invariant(y->label)) return eqnn_abs(y);
    return eqnn_sqrt(eqnn_mean_cols(eqnn_square(eqnn_as(y, NULL))));
}

/* Root mean square of e / (atol + rtol max(|a|, |b|)); leaves nothing behind. */
static double eqnn__ode_norm(const eqnn__ode *s, eqnn_tensor *e, eqnn_tensor *a, eqnn_tensor *b)
{
    eqnn_ctx *c = s->c;
    int recording = eqnn_recording(c, 0);
    eqnn_mark m = eqnn_mark_make(c);
    if (s->watch) {
        e = eqnn_slice(e, 0, s->watch);
        a = eqnn_slice(a, 0, s->watch);
        b = eqnn_slice(b, 0, s->watch);
    }
    eqnn_tensor *size = eqnn__ode_size(a);
    if (a != b) size = eqnn_max(size, eqnn__ode_size(b));
    size = eqnn_shift(eqnn_scale(size, s->o.rtol), s->o.atol);
    double norm = eqnn__ode_rms(e ? eqnn_div(eqnn_as(e, NULL), size) : NULL);
    eqnn_rewind(m, NULL);
    eqnn_recording(c, recording);
    return norm;
}

static int eqnn__ode_budget(eqnn__ode *s)
{
    if (s->c->failed) return 0;
    if (s->stats.steps + s->stats.rejected < s->o.max_steps) return 1;
    eqnn__fail(s->c,
               "ode: %d steps from t = %g came to t = %g, not to %g; the equation may be stiff: "
               "raise .max_steps or the tolerance",
               s->o.max_steps, s->times[0], s->t, s->times[s->n - 1]);
    return 0;
}

/* Stages of an explicit method, k_i = f(y + h sum over j < i of a_ij k_j, t + c_i h), from k[0] on;
   returns y + h sum of b_i k_i. Row i of a (6 numbers each) belongs to stage i+1, the last is b. */
static eqnn_tensor *eqnn__ode_stages(eqnn__ode *s, const double *a, const double *c, int n,
                                     double h, eqnn_tensor **k)
{
    for (int i = 1; i < n; i++)
        k[i] = eqnn__ode_field(s, eqnn__ode_sum(s->y, h, a + 6 * (i - 1), k, i), s->t + c[i] * h);
    return eqnn__ode_sum(s->y, h, a + 6 * (n - 1), k, n);
}

/* --- steps that follow the error: Dormand and Prince 1980, J. Comp. Appl. Math. 6, 19; Hairer,
   Norsett, Wanner, Solving Ordinary Differential Equations I, 2nd ed. 1993, II.4 to II.6 --- */

static const double eqnn__dopri_c[6] = { 0, 0.2, 0.3, 0.8, 8.0 / 9, 1 };
static const double eqnn__dopri_a[6][6] = {
    { 0.2, 0, 0, 0, 0, 0 },
    { 3.0 / 40, 9.0 / 40, 0, 0, 0, 0 },
    { 44.0 / 45, -56.0 / 15, 32.0 / 9, 0, 0, 0 },
    { 19372.0 / 6561, -25360.0 / 2187, 64448.0 / 6561, -212.0 / 729, 0, 0 },
    { 9017.0 / 3168, -355.0 / 33, 46732.0 / 5247, 49.0 / 176, -5103.0 / 18656, 0 },
    { 35.0 / 384, 0, 500.0 / 1113, 125.0 / 192, -2187.0 / 6784, 11.0 / 84 }
};
/* Orders 5 and 4 differ by h sum of e_i k_i; the seventh stage is the field at the step's end. */
static const double eqnn__dopri_e[7] = { 71.0 / 57600, 0, -71.0 / 16695, 71.0 / 1920,
                                         -17253.0 / 339200, 22.0 / 525, -1.0 / 40 };

/* y(t + u h) = y + h sum of w_i k_i, 4th order for 0 < u < 1 (II.6; Shampine's d_i): a cubic with
   the values and slopes of both ends, and u^2 (1-u)^2 sum of d_i k_i */
static void eqnn__dopri_dense(double u, double w[7])
{
    static const double d[7] = { -12715105075.0 / 11282082432, 0, 87487479700.0 / 32700410799,
                                 -10690763975.0 / 1880347072, 701980252875.0 / 199316789632,
                                 -1453857185.0 / 822651844, 69997945.0 / 29380423 };
    for (int i = 0; i < 7; i++) {
        double b = i < 6 ? eqnn__dopri_a[5][i] : 0, first = i == 0, last = i == 6;
        w[i] = u * (b + (1 - u) * (first - b + u * (2 * b - first - last + (1 - u) * d[i])));
    }
}

/* A step of length h, tried: k[7], its end, and the norm of its error (1: just good enough). */
static double eqnn__dopri_try(eqnn__ode *s, double h, eqnn_tensor *k[7], eqnn_tensor **end)
{
    k[0] = s->k;
    *end = eqnn__ode_stages(s, eqnn__dopri_a[0], eqnn__dopri_c, 6, h, k);
    k[6] = eqnn__ode_field(s, *end, s->t + h);
    if (!k[6]) return NAN;
    int recording = eqnn_recording(s->c, 0);
    eqnn_mark m = eqnn_mark_make(s->c);
    eqnn_tensor *e = eqnn__scale(k[0], h * eqnn__dopri_e[0], 0, "ode");
    double norm = eqnn__ode_norm(s, eqnn__ode_sum(e, h, eqnn__dopri_e + 1, k + 1, 6), s->y, *end);
    eqnn_rewind(m, NULL);
    eqnn_recording(s->c, recording);
    return norm;
}

/* The step counts: outputs up to its end, which is the new start. */
static void eqnn__dopri_accept(eqnn__ode *s, double h, double t, eqnn_tensor *k[7],
                               eqnn_tensor *end)
{
    for (; s->next < s->n; s->next++) {
        double at = s->times[s->next], u = at == t ? 1 : (at - s->t) / (t - s->t), w[7];
        if (u > 1) break;
        eqnn__dopri_dense(u, w);
        eqnn__ode_put(s, &s->out[s->next], u < 1 ? eqnn__ode_sum(s->y, h, w, k, 7) : end);
    }
    eqnn__ode_put(s, &s->y, end);
    eqnn__ode_put(s, &s->k, k[6]);
    s->t = t;
    s->stats.steps++;
}

/* A first step whose Euler step would change y by a hundredth, and whose second derivative is
   within the tolerance (II.4). */
static double eqnn__dopri_first(eqnn__ode *s, double span)
{
    static const double one = 1;
    if (s->o.step > 0) return s->o.step < span ? s->o.step : span;
    double sign = s->times[s->n - 1] < s->t ? -1 : 1;
    double d0 = eqnn__ode_norm(s, s->y, s->y, s->y), d1 = eqnn__ode_norm(s, s->k, s->y, s->y);
    double h = d0 < 1e-5 || d1 < 1e-5 ? 1e-6 : 0.01 * d0 / d1;
    if (!(h < span)) h = span;
    eqnn_mark m = eqnn_mark_make(s->c);
    int recording = eqnn_recording(s->c, 0);
    eqnn_tensor *k = eqnn__ode_field(s, eqnn__ode_sum(s->y, sign * h, &one, &s->k, 1),
                                     s->t + sign * h);
    double d2 = k ? eqnn__ode_norm(s, eqnn_sub(k, s->k), s->y, s->y) / h : NAN;
    eqnn_recording(s->c, recording);
    eqnn_rewind(m, NULL);
    if (d2 > d1) d1 = d2;
    double longer = d1 > 1e-15 ? eqnn__power(0.01 / d1, 0.2) : h * 1e-3;
    if (longer < 1e-6 && !(d1 > 1e-15)) longer = 1e-6;
    if (100 * h < longer) longer = 100 * h;
    return longer < span ? longer : span;
}

/* The next step is the last times this: a controller that looks at the last two errors (II.4). */
static double eqnn__dopri_factor(double error, double before, int good)
{
    if (!(error < INFINITY)) return 0.2;
    if (error < 1e-10) return 10;
    double f = 0.9 / eqnn__power(error, 0.17) * (good ? eqnn__power(before, 0.04) : 1);
    return f < 0.2 ? 0.2 : f > 10 ? 10 : f;
}

/* Rejected steps are forgotten, with their part of the tape. */
static void eqnn__dopri(eqnn__ode *s)
{
    double end = s->times[s->n - 1], sign = end < s->t ? -1 : 1, before = 1e-4;
    double span = fabs(end - s->t), h = span > 0 ? eqnn__dopri_first(s, span) : 0;
    int good = 1;
    while (s->next < s->n && eqnn__ode_budget(s)) {
        double left = fabs(end - s->t), error;
        int last = 1.01 * h >= left, was_good = good;
        eqnn_tensor *k[7], *y;
        if (last) h = left;
        eqnn_mark m = eqnn_mark_make(s->c);
        error = eqnn__dopri_try(s, sign * h, k, &y);
        if (s->c->failed) return;
        good = error <= 1;
        if (good) eqnn__dopri_accept(s, sign * h, last ? end : s->t + sign * h, k, y);
        else s->stats.rejected++;
        if (!good || !s->keep) eqnn_rewind(m, NULL);
        double factor = eqnn__dopri_factor(error, before, good);
        h *= good && !was_good && factor > 1 ? 1 : factor;
        if (good) before = error > 1e-4 ? error : 1e-4;
        if (!good && h <= 1e-14 * (fabs(s->t) + fabs(end)))
            eqnn__fail(s->c, "ode: at t = %g no step is short enough: %s", s->t,
                       error < INFINITY ? "raise the tolerance" : "the field is not finite");
    }
}

/* --- steps of fixed length --- */

static eqnn_tensor *eqnn__ode_rk4(eqnn__ode *s, double h)
{
    static const double c[4] = { 0, 0.5, 0.5, 1 };
    static const double a[4][6] = { { 0.5, 0, 0, 0, 0, 0 },
                                    { 0, 0.5, 0, 0, 0, 0 },
                                    { 0, 0, 1, 0, 0, 0 },
                                    { 1.0 / 6, 1.0 / 3, 1.0 / 3, 1.0 / 6, 0, 0 } };
    eqnn_tensor *k[4];
    k[0] = eqnn__ode_field(s, s->y, s->t);
    return eqnn__ode_stages(s, a[0], c, 4, h, k);
}

/* Slopes at 0, h/3, 2h/3 and h count 1, 3, 3, 1 eighths (W. Kutta 1901). */
static eqnn_tensor *eqnn__ode_rk38(eqnn__ode *s, double h)
{
    static const double c[4] = { 0, 1.0 / 3, 2.0 / 3, 1 };
    static const double a[4][6] = { { 1.0 / 3, 0, 0, 0, 0, 0 },
                                    { -1.0 / 3, 1, 0, 0, 0, 0 },
                                    { 1, -1, 1, 0, 0, 0 },
                                    { 0.125, 0.375, 0.375, 0.125, 0, 0 } };
    eqnn_tensor *k[4];
    k[0] = eqnn__ode_field(s, s->y, s->t);
    return eqnn__ode_stages(s, a[0], c, 4, h, k);
}

/* y1 = y + h f(m, t + h/2) at the middle m = (y + y1) / 2 (Hairer, Lubich, Wanner, Geometric
   Numerical Integration, 2nd ed. 2006, VI.4). m = y + h/2 f(m) is iterated from m = y, until it
   stands still, or until all that still moves is rounding. The whole iteration is on the tape:
   derivatives converge as the values do. */
static eqnn_tensor *eqnn__ode_midpoint(eqnn__ode *s, double h)
{
    static const double half = 0.5, one = 1;
    eqnn_tensor *m = s->y;
    double last = INFINITY;
    for (int i = 0; i < 200 && m; i++) {
        eqnn_tensor *k = eqnn__ode_field(s, m, s->t + h / 2), *was = m;
        m = eqnn__ode_sum(s->y, h, &half, &k, 1);
        int recording = eqnn_recording(s->c, 0);
        double change = m ? eqnn__ode_rms(eqnn_sub(m, was)) : NAN, size = eqnn__ode_rms(m);
        eqnn_recording(s->c, recording);
        if (!(change < INFINITY)) break;
        if (change <= s->o.solve * size ||
            (change >= last / 2 && change <= 128 * EQNN__ODE_EPS * size))
            return eqnn__ode_sum(s->y, h, &one, &k, 1);
        last = change;
    }
    return eqnn__fail(s->c, "ode: at t = %g the midpoint's iteration does not converge with steps "
                      "of %g; they must be shorter", s->t, fabs(h));
}

static void eqnn__ode_fixed(eqnn__ode *s)
{
    for (; s->next < s->n && !s->c->failed; s->next++) {
        double start = s->times[s->next - 1], span = s->times[s->next] - start;
        double count = s->o.step > 0 ? ceil(fabs(span) / s->o.step - 1e-9) : 1;
        if (count < 1) count = 1;
        for (double i = 0; i < count && eqnn__ode_budget(s); i++) {
            eqnn_mark m = eqnn_mark_make(s->c);
            s->t = start + span * i / count;
            double h = span / count;
            eqnn__ode_put(s, &s->y, s->o.method == EQNN_RK4    ? eqnn__ode_rk4(s, h)
                                    : s->o.method == EQNN_RK38 ? eqnn__ode_rk38(s, h)
                                                               : eqnn__ode_midpoint(s, h));
            if (!s->keep) eqnn_rewind(m, NULL);
            s->stats.steps++;
        }
        eqnn__ode_put(s, &s->out[s->next], s->y);
    }
}

/* From out[0] at times[0] to all the others. */
static int eqnn__ode_run(eqnn__ode *s, const double *times, int n, eqnn_tensor **out)
{
    s->c = out[0]->ctx;
    s->keep = s->c->recording;
    s->times = times;
    s->n = n;
    s->next = 1;
    s->out = out;
    s->t = times[0];
    s->y = s->keep ? out[0] : eqnn_detach(out[0]);
    for (int i = 1; i < n; i++) out[i] = s->keep ? out[0] : eqnn_detach(out[0]);
    if (s->o.method == EQNN_DOPRI5 && n > 1) {
        s->k = eqnn__ode_field(s, s->y, s->t);
        if (!s->c->failed) eqnn__dopri(s);
    } else {
        eqnn__ode_fixed(s);
    }
    return !s->c->failed;
}

/* --- the adjoint equation: Chen, Rubanova, Bettencourt, Duvenaud 2018, arXiv:1806.07366 ---

   With a(t) = dL/dy(t) and w the parameters, backwards in time from the last output,

       dy/dt = f      da/dt = -a df/dy      d(dL/dw)/dt = -a df/dw

   and at each output time a jumps by dL/dy_i. There y starts anew from what was computed forwards.
   All three are one row. dL/dw does not act back, so it does not choose the steps (Kidger, Chen,
   Lyons 2021, arXiv:2009.09457). The midpoint rule keeps a dy/dy0 as it is: its adjoint gives what
   the tape gives, up to rounding (Sanz-Serna 2016, SIAM Review 58, 3). */

typedef struct eqnn__adjoint {
    eqnn_field f;
    void *user;
    eqnn_ode_opts o;
    const double *times;
    int n;
    double t;               /* the time of the call                                       */
    eqnn__checkpoint *call; /* so that f finds the names, tick and mode of the first time */
    eqnn_tensor *const *x;  /* y0 and the parameters that f touches                       */
    int inputs;
} eqnn__adjoint;

static eqnn_tensor *eqnn__adjoint_call(eqnn_tensor *const *x, int n, void *user)
{
    const eqnn__adjoint *a = *(eqnn__adjoint *const *)user;
    (void)n;
    return a->f(x[0], a->t, a->user);
}

/* The three right-hand sides, for the row | y | a | dL/dw |. */
static eqnn_tensor *eqnn__adjoint_field(eqnn_tensor *row, double t, void *user)
{
    eqnn__adjoint *a = (eqnn__adjoint *)user;
    eqnn_ctx *c = row->ctx;
    int rows = a->x[0]->rows, cols = a->x[0]->cols, size = rows * cols, n = a->inputs;
    eqnn_tensor **x = (eqnn_tensor **)eqnn__arena_alloc(c, &c->step,
                                                        (2 * (size_t)n + 1) * sizeof *x);
    if (!x) return NULL;
    eqnn_tensor **d = x + n, *g = eqnn_reshape(eqnn_slice(row, size, size), rows, cols);
    memcpy(x, a->x, (size_t)n * sizeof *x);
    x[0] = eqnn_as(eqnn_reshape(eqnn_slice(row, 0, size), rows, cols), a->x[0]->label);
    a->t = t;
    int recording = eqnn_recording(c, 1);
    d[0] = eqnn_as(x[0] ? eqnn__replay(c, a->call, x) : NULL, NULL);
    int good = d[0] && eqnn_vjps(d[0], g, x, n, d + 1);
    eqnn_recording(c, recording);
    for (int i = 0; good && i <= n; i++)
        d[i] = eqnn_reshape(eqnn_as(d[i], NULL), 1, d[i]->rows * d[i]->cols);
    for (int i = 1; good && i <= n; i++) d[i] = eqnn_neg(d[i]);
    return good ? eqnn_concat_n(d, n + 1) : NULL;
}

/* x: cotangents of all outputs on top of each other, the outputs likewise, and what they came from.
   Returns | dL/dy0 | dL/dw |. */
static eqnn_tensor *eqnn__adjoint_value(eqnn_tensor *const *x, int n, void *user)
{
    eqnn__adjoint *a = *(eqnn__adjoint **)user;
    eqnn_ctx *c = x[0]->ctx;
    int rows = a->x[0]->rows, size = rows * a->x[0]->cols, weights = 0, rule = c->in_rule;
    eqnn__recycler *recycler = c->recycler;
    for (int i = 3; i < n; i++) weights += x[i]->rows * x[i]->cols;
    c->recycler = NULL; /* what a rewind takes must not be found there */
    c->in_rule = 0;
    eqnn_mark m = eqnn_mark_make(c);
    eqnn_tensor *sum = eqnn_zeros(c, 1, size + weights), *row[2], *part[3];
    for (int i = a->n - 1; i > 0 && sum; i--) {
        double times[2];
        eqnn__ode s;
        memset(&s, 0, sizeof s);
        s.f = eqnn__adjoint_field;
        s.user = a;
        s.o = a->o;
        s.watch = 2 * size;
        times[0] = a->times[i];
        times[1] = a->times[i - 1];
        for (int k = 0; k < 2; k++)
            part[k] = eqnn_reshape(eqnn_as(eqnn_slice_rows(x[1 - k], (i - 1) * rows, rows), NULL),
                                   1, size);
        part[1] = eqnn_add(part[1], eqnn_slice(sum, 0, size));
        part[2] = eqnn_slice(sum, size, weights);
        row[0] = eqnn_concat_n(part, 3);
        sum = row[0] && eqnn__ode_run(&s, times, 2, row) ? row[1] : NULL;
        sum = eqnn_rewind(m, eqnn_slice(sum, size, size + weights));
    }
    c->in_rule = rule;
    c->recycler = recycler;
    return sum;
}

static int eqnn__adjoint_refuse(eqnn_tensor *const *x, int n, eqnn_tensor *y, eqnn_tensor *g,
                                const int *want, eqnn_tensor **dx, void *user)
{
    (void)n, (void)y, (void)g, (void)want, (void)dx, (void)user;
    eqnn__fail(x[0]->ctx, "ode: the adjoint equation gives first derivatives only; for higher ones "
               "leave .adjoint out");
    return 0;
}

/* The cotangents of y0 and the parameters, by an operation that has no rule of its own. */
static int eqnn__adjoint_rule(eqnn_tensor *const *x, int n, eqnn_tensor *y, eqnn_tensor *g,
                              const int *want, eqnn_tensor **dx, void *user)
{
    eqnn_ctx *c = g->ctx;
    eqnn_custom_op op;
    op.name = "ode";
    op.value = eqnn__adjoint_value;
    op.rule = eqnn__adjoint_refuse;
    eqnn_tensor **in = (eqnn_tensor **)eqnn__arena_alloc(c, &c->step,
                                                         ((size_t)n + 2) * sizeof *in);
    if (!in) return 0;
    in[0] = g;
    in[1] = y;
    memcpy(in + 2, x, (size_t)n * sizeof *in);
    eqnn_tensor *row = eqnn_custom(&op, in, n + 2, &user, sizeof user);
    for (int i = 0, first = 0; row && i < n; i++) {
        int size = x[i]->rows * x[i]->cols;
        if (want[i]) dx[i] = eqnn_reshape(eqnn_slice(row, first, size), x[i]->rows, x[i]->cols);
        first += size;
    }
    return row != NULL;
}

/* One node for the whole solution: inputs y0 and the parameters that were touched on the way. */
static int eqnn__adjoint_run(eqnn__ode *s, eqnn__adjoint *a, eqnn_tensor **y)
{
    eqnn_ctx *c = y[0]->ctx;
    int recording = eqnn_recording(c, 0), noting = c->noting, start = c->note_start;
    int first = c->notes, rows = y[0]->rows;
    c->noting = 1;
    c->note_start = first;
    int good = eqnn__ode_run(s, a->times, a->n, y);
    eqnn_tensor *all = good && a->n > 1 ? eqnn_stack(y + 1, a->n - 1) : NULL;
    c->noting = noting;
    c->note_start = start;
    eqnn_recording(c, recording);
    if (!all) return good && a->n == 1;
    a->inputs = 1 + c->notes - first;
    eqnn_tensor **x = (eqnn_tensor **)eqnn__arena_alloc(c, &c->step,
                                                        (size_t)a->inputs * sizeof *x);
    eqnn__custom *op = (eqnn__custom *)eqnn__arena_alloc(c, &c->step, sizeof *op);
    if (!x || !op) return 0;
    x[0] = y[0];
    if (a->inputs > 1) memcpy(x + 1, c->noted + first, (size_t)(a->inputs - 1) * sizeof *x);
    if (!noting) c->notes = first;
    memset(op, 0, sizeof *op);
    op->op.name = "ode";
    op->op.rule = eqnn__adjoint_rule;
    op->user = a;
    a->x = x;
    eqnn__node *node = eqnn__record(c, EQNN__OP_CUSTOM, x, a->inputs, &all, 1);
    if (node) node->aux = op;
    for (int i = 1; i < a->n; i++) y[i] = eqnn_slice_rows(all, (i - 1) * rows, rows);
    return !c->failed;
}

static int eqnn__ode_adjoint(eqnn__ode *s, const double *times, int n, eqnn_tensor **y)
{
    eqnn_ctx *c = y[0]->ctx;
    eqnn__adjoint *a = (eqnn__adjoint *)eqnn__arena_alloc(c, &c->step, sizeof *a);
    double *copy = (double *)eqnn__arena_alloc(c, &c->step, (size_t)n * sizeof *copy);
    if (!a || !copy) return 0;
    memset(a, 0, sizeof *a);
    memcpy(copy, times, (size_t)n * sizeof *copy);
    a->f = s->f;
    a->user = s->user;
    a->o = s->o;
    a->times = copy;
    a->n = n;
    a->call = eqnn__checkpoint_make(c, eqnn__adjoint_call, 1, &a, sizeof a);
    return a->call && eqnn__adjoint_run(s, a, y);
}

/* --- the entry --- */

static int eqnn__ode_times(eqnn_ctx *c, const double *times, int n)
{
    for (int i = 0; i < n; i++)
        if (!(fabs(times[i]) < INFINITY) ||
            (i > 1 && (times[i] - times[i - 1]) * (times[i - 1] - times[i - 2]) < 0)) {
            eqnn__fail(c, "ode: times must be finite and rise, or fall: number %d is %g", i,
                       times[i]);
            return 0;
        }
    return 1;
}

EQNN_API int eqnn_ode(eqnn_field f, eqnn_tensor *y0, const double *times, int n, eqnn_tensor **y,
                      void *user, const eqnn_ode_opts *opts)
{
    eqnn__ode s;
    for (int i = 0; y && i < n; i++) y[i] = NULL;
    if (eqnn__bad(y0, "ode")) return 0;
    if (!f || !times || !y || n < 1) {
        eqnn__fail(y0->ctx, "ode: %s", n < 1 ? "there must be one time or more"
                                             : "the field, the times or the place for y are NULL");
        return 0;
    }
    if (!eqnn__ode_times(y0->ctx, times, n)) return 0;
    memset(&s, 0, sizeof s);
    s.f = f;
    s.user = user;
    s.o = eqnn__ode_defaults(opts);
    y[0] = y0;
    int good = s.o.adjoint && y0->ctx->recording ? eqnn__ode_adjoint(&s, times, n, y)
                                                 : eqnn__ode_run(&s, times, n, y);
    for (int i = 0; !good && i < n; i++) y[i] = NULL;
    if (s.o.stats) *s.o.stats = s.stats;
    return good;
}

/* ----------------------------------------------------------------------------------------------
   10 >>irreps
   ---------------------------------------------------------------------------------------------- */

#define EQNN__LMAX 32 /* of coupling tensors and rotation matrices; harmonics have no limit */

/* ---- labels from strings and lists ---- */

static const eqnn_type *eqnn__irrep(eqnn_ctx *c, int l, int p)
{
    char name[16];
    snprintf(name, sizeof name, "%d%c", l, p > 0 ? 'e' : 'o');
    return eqnn__type(c, EQNN_TYPE_IRREP, l, p, 2 * l + 1, name, NULL);
}

/* Room for n blocks that are about to become a label; NULL after an error. */
static eqnn_block *eqnn__block_list(eqnn_ctx *c, size_t n)
{
    if (!c || eqnn_error(c)) return NULL;
    eqnn_block *b = (eqnn_block *)eqnn__step_alloc(c, (n + 1) * sizeof *b);
    if (b) memset(b, 0, (n + 1) * sizeof *b);
    return b;
}

static const char *eqnn__skip_space(const char *s)
{
    while (*s == ' ' || (*s >= '\t' && *s <= '\r')) s++;
    return s;
}

/* Reads a decimal number; -1 when there is none, -2 when it is too large. */
static int eqnn__read_number(const char **at)
{
    const char *s = *at;
    int n = 0;
    if (*s < '0' || *s > '9') return -1;
    for (; *s >= '0' && *s <= '9'; s++) {
        if (n > 99999999) return -2;
        n = 10 * n + (*s - '0');
    }
    *at = s;
    return n;
}

/* One block, "16x1o", "1o" or "16 x 1o". Returns what is wrong, or NULL; *at moves to the place. */
static const char *eqnn__read_block(eqnn_ctx *c, const char **at, eqnn_block *b)
{
    *at = eqnn__skip_space(*at);
    int copies = 1, l = eqnn__read_number(at);
    const char *rest = eqnn__skip_space(*at);
    if (l >= 0 && *rest == 'x') {
        copies = l;
        *at = eqnn__skip_space(rest + 1);
        l = eqnn__read_number(at);
    }
    if (l == -1) return "a number is expected, as in 8x1o";
    if (l == -2 || l > 1000000) return "this number is too large";
    *at = eqnn__skip_space(*at);
    char parity = **at;
    if (parity == 'E' || parity == 'O' || parity == 'Y') return "parities are small letters";
    if (parity != 'e' && parity != 'o' && parity != 'y') return "a parity e, o or y is expected";
    *at = eqnn__skip_space(*at + 1);
    b->copies = copies;
    b->type = eqnn__irrep(c, l, parity == 'e' || (parity == 'y' && l % 2 == 0) ? 1 : -1);
    return **at == '\0' || **at == '+' ? NULL : "a + or the end is expected";
}

/* The grammar: blocks joined by +; a block is [copies x] l parity, parity e (+1), o (-1) or
   y ((-1)^l); white space may stand between all pieces; a blank string is the empty label. */
EQNN_API const eqnn_irreps *eqnn_irreps_make(eqnn_ctx *c, const char *text)
{
    if (!c || eqnn_error(c)) return NULL;
    if (!text) {
        eqnn__fail(c, "irreps: no text");
        return NULL;
    }
    size_t n = 1;
    for (const char *s = text; *s; s++) n += *s == '+';
    eqnn_block *b = eqnn__block_list(c, n);
    const char *at = eqnn__skip_space(text), *wrong = NULL;
    if (!b) return NULL;
    if (!*at) return eqnn__label(c, b, 0);
    int blocks = 0;
    for (;;) {
        wrong = eqnn__read_block(c, &at, &b[blocks++]);
        if (wrong || *at != '+') break;
        at++;
    }
    if (wrong) {
        eqnn__fail(c, "irreps \"%.100s\": character %d: %s", text, (int)(at - text) + 1, wrong);
        return NULL;
    }
    return eqnn_error(c) ? NULL : eqnn__label(c, b, blocks);
}

EQNN_API const eqnn_irreps *eqnn_irreps_blocks(eqnn_ctx *c, const int (*mul_l_p)[3], int blocks)
{
    eqnn_block *b = eqnn__block_list(c, blocks > 0 ? (size_t)blocks : 0);
    if (!b) return NULL;
    for (int i = 0; i < blocks; i++) {
        int copies = mul_l_p[i][0], l = mul_l_p[i][1], p = mul_l_p[i][2];
        if (copies < 0 || l < 0 || l > 1000000 || (p != 1 && p != -1)) {
            eqnn__fail(c, "irreps_blocks: block %d is %d copies of l %d, p %d; l and copies are at "
                          "least 0, p is 1 or -1", i, copies, l, p);
            return NULL;
        }
        b[i].copies = copies;
        b[i].type = eqnn__irrep(c, l, p);
    }
    return eqnn_error(c) ? NULL : eqnn__label(c, b, blocks > 0 ? blocks : 0);
}

EQNN_API const eqnn_irreps *eqnn_irreps_spherical(eqnn_ctx *c, int lmax)
{
    eqnn_block *b = eqnn__block_list(c, lmax >= 0 ? (size_t)lmax + 1 : 0);
    if (!b) return NULL;
    if (lmax < 0) {
        eqnn__fail(c, "irreps_spherical: lmax %d is negative", lmax);
        return NULL;
    }
    for (int l = 0; l <= lmax; l++) {
        b[l].copies = 1;
        b[l].type = eqnn__irrep(c, l, l % 2 ? -1 : 1);
    }
    return eqnn_error(c) ? NULL : eqnn__label(c, b, lmax + 1);
}

/* ---- operations on lists ---- */

EQNN_API const eqnn_irreps *eqnn_irreps_concat(eqnn_ctx *c, const eqnn_irreps *a,
                                               const eqnn_irreps *b)
{
    if (!a || !b) return NULL;
    eqnn_block *list = eqnn__block_list(c, (size_t)a->blocks + (size_t)b->blocks);
    if (!list) return NULL;
    for (int i = 0; i < a->blocks; i++) list[i] = a->block[i];
    for (int i = 0; i < b->blocks; i++) list[a->blocks + i] = b->block[i];
    return eqnn__label(c, list, a->blocks + b->blocks);
}

/* The list n times in a row, block by block: 2 * "0e+1e" is "0e+1e+0e+1e". */
EQNN_API const eqnn_irreps *eqnn_irreps_times(eqnn_ctx *c, const eqnn_irreps *a, int n)
{
    if (!c || !a || eqnn_error(c)) return NULL;
    if (n < 0 || (a->blocks > 0 && n > 100000000 / a->blocks)) {
        eqnn__fail(c, "irreps_times: %d times \"%.60s\" is not a list", n, a->name);
        return NULL;
    }
    eqnn_block *list = eqnn__block_list(c, (size_t)a->blocks * (size_t)n);
    if (!list) return NULL;
    for (int i = 0; i < a->blocks * n; i++) list[i] = a->block[i % a->blocks];
    return eqnn__label(c, list, a->blocks * n);
}

/* Merges neighbours of equal type and drops empty blocks; the order stays. */
EQNN_API const eqnn_irreps *eqnn_irreps_simplify(eqnn_ctx *c, const eqnn_irreps *a)
{
    eqnn_block *list = a ? eqnn__block_list(c, (size_t)a->blocks) : NULL;
    int n = 0;
    if (!list) return NULL;
    for (int i = 0; i < a->blocks; i++) {
        if (a->block[i].copies == 0) continue;
        if (n > 0 && list[n - 1].type == a->block[i].type)
            list[n - 1].copies += a->block[i].copies;
        else
            list[n++] = a->block[i];
    }
    return eqnn__label(c, list, n);
}

/* Sorted by degree, odd before even: 0o, 0e, 1o, 1e, ... */
static int eqnn__irrep_before(const eqnn_type *a, const eqnn_type *b)
{
    return a->l != b->l ? a->l < b->l : a->p < b->p;
}

EQNN_API const eqnn_irreps *eqnn_irreps_sort(eqnn_ctx *c, const eqnn_irreps *a, int *new_of_old)
{
    eqnn_block *list = a ? eqnn__block_list(c, (size_t)a->blocks) : NULL;
    if (!list) return NULL;
    for (int i = 0; i < a->blocks; i++) { /* where block i goes: how many stand before it */
        int to = 0;
        for (int k = 0; k < a->blocks; k++) {
            const eqnn_type *s = a->block[k].type, *t = a->block[i].type;
            to += eqnn__irrep_before(s, t) || (k < i && !eqnn__irrep_before(t, s));
        }
        list[to] = a->block[i];
        if (new_of_old) new_of_old[i] = to;
    }
    return eqnn__label(c, list, a->blocks);
}

EQNN_API const eqnn_irreps *eqnn_irreps_regroup(eqnn_ctx *c, const eqnn_irreps *a)
{
    return eqnn_irreps_simplify(c, eqnn_irreps_sort(c, a, NULL));
}

EQNN_API const eqnn_irreps *eqnn_irreps_filter(eqnn_ctx *c, const eqnn_irreps *a,
                                               const eqnn_irreps *keep, const eqnn_irreps *drop,
                                               int lmax)
{
    eqnn_block *list = a ? eqnn__block_list(c, (size_t)a->blocks) : NULL;
    int n = 0;
    if (!list) return NULL;
    for (int i = 0; i < a->blocks; i++) {
        const eqnn_type *t = a->block[i].type;
        int wanted = (!keep || eqnn_irreps_has(keep, t->l, t->p)) &&
                     (!drop || !eqnn_irreps_has(drop, t->l, t->p)) && (lmax < 0 || t->l <= lmax);
        if (wanted) list[n++] = a->block[i];
    }
    return eqnn__label(c, list, n);
}

EQNN_API int eqnn_irreps_count(const eqnn_irreps *a, int l, int p)
{
    int n = 0;
    for (int i = 0; a && i < a->blocks; i++)
        if (a->block[i].type->l == l && a->block[i].type->p == p) n += a->block[i].copies;
    return n;
}

EQNN_API int eqnn_irreps_has(const eqnn_irreps *a, int l, int p)
{
    for (int i = 0; a && i < a->blocks; i++)
        if (a->block[i].type->l == l && a->block[i].type->p == p) return 1;
    return 0;
}

EQNN_API int eqnn_irreps_lmax(const eqnn_irreps *a)
{
    int lmax = -1;
    for (int i = 0; a && i < a->blocks; i++)
        if (a->block[i].copies > 0 && a->block[i].type->l > lmax) lmax = a->block[i].type->l;
    return lmax;
}

/* ---- rotations ---- */

EQNN_API void eqnn_rotation_angles(double alpha, double beta, double gamma, double R[9])
{
    double ca = eqnn__sin_quarter(alpha, 1), sa = eqnn__sin_quarter(alpha, 0);
    double cb = eqnn__sin_quarter(beta, 1), sb = eqnn__sin_quarter(beta, 0);
    double cg = eqnn__sin_quarter(gamma, 1), sg = eqnn__sin_quarter(gamma, 0);
    R[0] = ca * cg - sa * cb * sg; /* Ry(alpha) Rx(beta) Ry(gamma), multiplied out */
    R[1] = sa * sb;
    R[2] = ca * sg + sa * cb * cg;
    R[3] = sb * sg;
    R[4] = cb;
    R[5] = -sb * cg;
    R[6] = -sa * cg - ca * cb * sg;
    R[7] = ca * sb;
    R[8] = -sa * sg + ca * cb * cg;
}

/* R e_y = (sin b sin a, cos b, sin b cos a) gives alpha and beta; gamma is what is left,
   (Ry(a) Rx(b))^T R = Ry(g). At the poles alpha is what atan2 says of rounding errors, and gamma
   makes up for it: the three angles always give R back. Of an improper R: the angles of -R. */
EQNN_API void eqnn_angles_rotation(const double R[9], double *alpha, double *beta, double *gamma)
{
    double det = R[0] * (R[4] * R[8] - R[5] * R[7]) - R[1] * (R[3] * R[8] - R[5] * R[6]) +
                 R[2] * (R[3] * R[7] - R[4] * R[6]);
    double s = det < 0 ? -1 : 1;
    double a = eqnn__atan2(s * R[1], s * R[7]);
    double ca = eqnn__sin_quarter(a, 1), sa = eqnn__sin_quarter(a, 0);
    *alpha = a;
    *beta = eqnn__atan2(sqrt(R[1] * R[1] + R[7] * R[7]), s * R[4]);
    /* the first row of (Ry(a) Rx(b))^T is (cos a, 0, -sin a) */
    *gamma = eqnn__atan2(s * (ca * R[2] - sa * R[8]), s * (ca * R[0] - sa * R[6]));
}

EQNN_API void eqnn_rotation_quaternion(const double q[4], double R[9])
{
    double size = sqrt(q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3]);
    int zero = !(size > 0); /* no rotation at all */
    double w = zero ? 1 : q[0] / size, x = zero ? 0 : q[1] / size;
    double y = zero ? 0 : q[2] / size, z = zero ? 0 : q[3] / size;
    R[0] = 1 - 2 * (y * y + z * z);
    R[1] = 2 * (x * y - w * z);
    R[2] = 2 * (x * z + w * y);
    R[3] = 2 * (x * y + w * z);
    R[4] = 1 - 2 * (x * x + z * z);
    R[5] = 2 * (y * z - w * x);
    R[6] = 2 * (x * z - w * y);
    R[7] = 2 * (y * z + w * x);
    R[8] = 1 - 2 * (x * x + y * y);
}

/* 4 q q^T is linear in R: its diagonal is 1 +- R00 +- R11 +- R22, the rest sums and differences of
   elements. The row with the largest diagonal, normalised, is q: there is always one above 1
   (Shepperd 1978, doi:10.2514/3.55767b). The sign is such that w >= 0. */
EQNN_API void eqnn_quaternion_rotation(const double R[9], double q[4])
{
    double K[4][4];
    K[0][0] = 1 + R[0] + R[4] + R[8];
    K[1][1] = 1 + R[0] - R[4] - R[8];
    K[2][2] = 1 - R[0] + R[4] - R[8];
    K[3][3] = 1 - R[0] - R[4] + R[8];
    K[0][1] = K[1][0] = R[7] - R[5];
    K[0][2] = K[2][0] = R[2] - R[6];
    K[0][3] = K[3][0] = R[3] - R[1];
    K[1][2] = K[2][1] = R[1] + R[3];
    K[1][3] = K[3][1] = R[2] + R[6];
    K[2][3] = K[3][2] = R[5] + R[7];
    int best = 0;
    for (int i = 1; i < 4; i++)
        if (K[i][i] > K[best][best]) best = i;
    double size = 0;
    for (int i = 0; i < 4; i++) size += K[best][i] * K[best][i];
    size = sqrt(size) * (K[best][0] < 0 ? -1 : 1);
    for (int i = 0; i < 4; i++) q[i] = K[best][i] / size;
}

EQNN_API void eqnn_rotation_axis(const double axis[3], double angle, double R[9])
{
    double size = sqrt(axis[0] * axis[0] + axis[1] * axis[1] + axis[2] * axis[2]);
    double s = size > 0 ? eqnn__sin_quarter(angle / 2, 0) / size : 0;
    double q[4];
    q[0] = size > 0 ? eqnn__sin_quarter(angle / 2, 1) : 1; /* no axis, no rotation */
    for (int i = 0; i < 3; i++) q[1 + i] = s * axis[i];
    eqnn_rotation_quaternion(q, R);
}

/* Angle in [0, pi], good to rounding everywhere; the axis of the identity is y. */
EQNN_API void eqnn_axis_rotation(const double R[9], double axis[3], double *angle)
{
    double q[4];
    eqnn_quaternion_rotation(R, q);
    double s = sqrt(q[1] * q[1] + q[2] * q[2] + q[3] * q[3]);
    *angle = 2 * eqnn__atan2(s, q[0]);
    for (int i = 0; i < 3; i++) axis[i] = s > 0 ? q[1 + i] / s : i == 1;
}

/* Four normal numbers point anywhere on the sphere of unit quaternions with equal probability. */
EQNN_API void eqnn_rotation_random(eqnn_ctx *c, const char *name, int improper, double R[9])
{
    double q[5] = { 1, 0, 0, 0, 1 };
    if (c) eqnn_random(c, name, 1, 5, q);
    eqnn_rotation_quaternion(q, R);
    if (improper && q[4] < 0)
        for (int i = 0; i < 9; i++) R[i] = -R[i];
}

/* ---- 3j tensors ---- */

/* Where the Clebsch-Gordan coefficients <l1 m1 l2 m3-m1 | l3 m3> of one m3 live, and the row of
   J^2 - l3 (l3 + 1) that belongs to m1, with J = J1 + J2 (Edmonds 1957, sections 2.5 and 3.1):

       diagonal   l1 (l1+1) + l2 (l2+1) + 2 m1 m2 - l3 (l3+1)
       m1 -> m1+1 sqrt((l1 (l1+1) - m1 (m1+1)) (l2 (l2+1) - m2 (m2-1)))       m2 = m3 - m1   */
typedef struct eqnn__cg { int l1, l2, l3, m3; } eqnn__cg;

static double eqnn__cg_diagonal(const eqnn__cg *g, int m1)
{
    int squares = g->l1 * (g->l1 + 1) + g->l2 * (g->l2 + 1) - g->l3 * (g->l3 + 1);
    return squares + 2 * m1 * (g->m3 - m1);
}

static double eqnn__cg_next(const eqnn__cg *g, int m1)
{
    int m2 = g->m3 - m1;
    double a = g->l1 * (g->l1 + 1) - m1 * (m1 + 1), b = g->l2 * (g->l2 + 1) - m2 * (m2 - 1);
    return a > 0 && b > 0 ? sqrt(a * b) : 0;
}

/* The middle of the rows whose Gershgorin disc contains 0 (there is one, 0 being an eigenvalue).
   There the eigenvector oscillates; towards both ends it decays. */
static int eqnn__cg_middle(const eqnn__cg *g, int low, int high)
{
    int first = high, last = low;
    for (int m = low; m <= high; m++) {
        double radius = (m > low ? eqnn__cg_next(g, m - 1) : 0) + eqnn__cg_next(g, m);
        if (fabs(eqnn__cg_diagonal(g, m)) > radius) continue;
        if (m < first) first = m;
        if (m > last) last = m;
    }
    int middle = low + (first - low + last - low) / 2;
    return middle < high ? middle : high - 1;
}

/* c[l1 + m1] = <l1 m1 l2 m3-m1 | l3 m3>: the eigenvector of J^2, a tridiagonal matrix. Its
   three-term recursion is run from both ends, where the vector grows, and joined in the middle, so
   nothing cancels at any l (Racah's formula, a sum of large terms of both signs, loses a digit
   every few degrees). Condon and Shortley's phase: that of the largest m1 is positive. */
static void eqnn__cg_column(const eqnn__cg *g, double *c)
{
    int low = g->m3 - g->l2 > -g->l1 ? g->m3 - g->l2 : -g->l1;
    int high = g->m3 + g->l2 < g->l1 ? g->m3 + g->l2 : g->l1;
    double *v = c + g->l1, b0 = 1, b1 = 0; /* b0, b1: from above, at m and m + 1 */
    memset(c, 0, (size_t)(2 * g->l1 + 1) * sizeof *c);
    v[low] = v[high] = 1;
    if (low < high) {
        int middle = eqnn__cg_middle(g, low, high), m;
        double from_above[2 * EQNN__LMAX + 1];
        for (m = low; m <= middle; m++)
            v[m + 1] = -(eqnn__cg_diagonal(g, m) * v[m] +
                         (m > low ? eqnn__cg_next(g, m - 1) * v[m - 1] : 0)) / eqnn__cg_next(g, m);
        from_above[high - low] = 1;
        for (m = high; m > middle; m--) {
            double next = m < high ? eqnn__cg_next(g, m) * b1 : 0;
            double below = -(eqnn__cg_diagonal(g, m) * b0 + next) / eqnn__cg_next(g, m - 1);
            b1 = b0;
            b0 = below;
            from_above[m - 1 - low] = below;
        }
        double join = (v[middle] * b0 + v[middle + 1] * b1) / (b0 * b0 + b1 * b1);
        for (m = middle + 1; m <= high; m++) v[m] = join * from_above[m - low];
    }
    double size = 0;
    for (int m = low; m <= high; m++) size += v[m] * v[m];
    size = v[high] < 0 ? -sqrt(size) : sqrt(size);
    for (int m = low; m <= high; m++) v[m] /= size;
}

/* Real harmonics in terms of complex ones: Q[m][n] is i to this power, over sqrt 2 unless m = 0;
   n = m or -m. A factor (-i)^l, which makes all coupling tensors real, is left to the caller. */
static int eqnn__quarter_turns(int m, int n)
{
    if (m == 0) return 0;
    if (m < 0) return n > 0 ? 0 : 3;
    return (n > 0 ? 0 : 1) + 2 * m;
}

/* Adds what one complex coefficient gives to the real tensor, for all signs of the three orders. */
static void eqnn__add_to_real(const eqnn__cg *g, int m1, int m2, double value, double *C)
{
    int m3 = m1 + m2, d2 = 2 * g->l2 + 1, d3 = 2 * g->l3 + 1;
    int halves = (m1 != 0) + (m2 != 0) + (m3 != 0);
    for (int signs = 0; signs < 8; signs++) {
        int n1 = signs & 1 ? -m1 : m1, n2 = signs & 2 ? -m2 : m2, n3 = signs & 4 ? -m3 : m3;
        if ((m1 == 0 && (signs & 1)) || (m2 == 0 && (signs & 2)) || (m3 == 0 && (signs & 4)))
            continue;
        int turns = eqnn__quarter_turns(m1, n1) + eqnn__quarter_turns(m2, n2) -
                    eqnn__quarter_turns(m3, n3) + 3 * (g->l1 + g->l2 - g->l3);
        if (turns % 2) continue; /* imaginary: cancels against -m1, -m2 */
        double x = value * (halves == 3 ? 0.5 * sqrt(0.5) : halves == 2 ? 0.5 : 1);
        C[((g->l1 + n1) * d2 + g->l2 + n2) * d3 + g->l3 + n3] += turns % 4 ? -x : x;
    }
}

/* From complex coefficients to the real tensor, C = sum Q1 Q2 conj(Q3) CG / sqrt(2 l3 + 1). Those
   of -m3 follow from <-m1 -m2 | -m3> = (-1)^(l1+l2-l3) <m1 m2 | m3>; using it for m3 = 0 too makes
   what should cancel cancel exactly. */
EQNN_API int eqnn_wigner_3j(int l1, int l2, int l3, double *C)
{
    int top = l1 > l2 ? l1 : l2;
    if (l1 < 0 || l2 < 0 || l3 < 0 || (l3 > top ? l3 : top) > EQNN__LMAX) return 0;
    if (l1 > l2 + l3 || l2 > l1 + l3 || l3 > l1 + l2) return 0;
    double column[2 * EQNN__LMAX + 1], mirror = (l1 + l2 - l3) % 2 ? -1 : 1;
    size_t size = (size_t)(2 * l1 + 1) * (size_t)(2 * l2 + 1) * (size_t)(2 * l3 + 1);
    eqnn__cg g = { l1, l2, l3, 0 };
    memset(C, 0, size * sizeof *C);
    for (g.m3 = 0; g.m3 <= l3; g.m3++) {
        eqnn__cg_column(&g, column);
        for (int m1 = -l1; m1 <= l1; m1++) {
            double value = column[l1 + m1] / sqrt(2.0 * l3 + 1);
            int mirrored = g.m3 == 0 && (m1 < 0 || (m1 == 0 && mirror < 0));
            if (abs(g.m3 - m1) > l2 || mirrored) continue;
            eqnn__add_to_real(&g, m1, g.m3 - m1, value, C);
            if (g.m3 > 0 || m1 > 0) eqnn__add_to_real(&g, -m1, m1 - g.m3, mirror * value, C);
        }
    }
    for (size_t i = 0; i < size; i++)
        if (fabs(C[i]) < 1e-15) C[i] = 0; /* zeros without a reason in symmetry */
    return 1;
}

/* The same, remembered by the context. NULL when the triangle fails or after an error. */
typedef struct eqnn__w3j_cache {
    struct eqnn__w3j_cache *next;
    int l1, l2, l3;
    double *C;
} eqnn__w3j_cache;

static EQNN__MAYBE_UNUSED const double *eqnn__w3j(eqnn_ctx *c, int l1, int l2, int l3)
{
    eqnn__w3j_cache *e = c->w3j;
    for (; e; e = e->next)
        if (e->l1 == l1 && e->l2 == l2 && e->l3 == l3) return e->C;
    if (l1 < 0 || l2 < 0 || l3 < 0) return NULL;
    if (l1 > EQNN__LMAX || l2 > EQNN__LMAX || l3 > EQNN__LMAX) {
        eqnn__fail(c, "coupling (%d,%d,%d): degrees above %d have no table", l1, l2, l3,
                   EQNN__LMAX);
        return NULL;
    }
    size_t size = (size_t)(2 * l1 + 1) * (size_t)(2 * l2 + 1) * (size_t)(2 * l3 + 1);
    e = (eqnn__w3j_cache *)eqnn__keep_alloc(c, sizeof *e);
    double *C = (double *)eqnn__keep_alloc(c, size * sizeof *C);
    if (!e || !C || !eqnn_wigner_3j(l1, l2, l3, C)) return NULL;
    e->l1 = l1;
    e->l2 = l2;
    e->l3 = l3;
    e->C = C;
    e->next = c->w3j;
    c->w3j = e;
    return C;
}

/* ---- harmonics, their gradient, and what follows from it ---- */

/* Solid harmonics P^l_m = F_lm (y, r^2) times A_m or B_m, A_m + i B_m = (z + i x)^m: the polar axis
   is y, the azimuth runs from z to x. F obeys the recursion of the associated Legendre functions,

       F_lm = sqrt((4 l^2 - 1)/(l^2 - m^2)) [ y F_l-1,m
                                              - sqrt(((l-1)^2 - m^2)/(4 (l-1)^2 - 1)) r^2 F_l-2,m ]

   and sum over m of (P^l_m)^2 = (2l+1) r^(2l). Component m of degree l stands at l^2 + l + m. */
EQNN_API void eqnn_solid_harmonics(int lmax, const double r[3], double *Y)
{
    double x = r[0], y = r[1], z = r[2], r2 = x * x + y * y + z * z;
    double A = 1, B = 0, Fmm = 1;
    for (int m = 0; m <= lmax; m++) {
        double F = Fmm, before = 0, root2 = m ? sqrt(2.0) : 1;
        for (int l = m; l <= lmax; l++) {
            Y[l * l + l + m] = root2 * F * A;
            if (m) Y[l * l + l - m] = root2 * F * B;
            double n = l + 1, k = m;
            double c1 = sqrt((4 * n * n - 1) / (n * n - k * k));
            double c2 = l > m ? sqrt((l * (double)l - k * k) / (4.0 * l * l - 1)) : 0;
            double next = c1 * (y * F - c2 * r2 * before);
            before = F;
            F = next;
        }
        double turned = z * A - x * B; /* (A + i B) (z + i x) */
        B = z * B + x * A;
        A = turned;
        Fmm *= sqrt((2.0 * m + 3) / (2.0 * m + 2));
    }
}

/* The gradient of a solid harmonic is a sum of those one degree lower:

       d/dr_axis P^l_m = sum over at most 5 terms of g P^(l-1)_n

   With S_m = P_m + i P_-m (m > 0; S_0 = sqrt2 P_0) and q = sqrt((2l+1)/(2l-1)),

       (d/dz + i d/dx) S_m = -q sqrt((l-m)(l-m-1)) S_m+1      d/dy S_m = q sqrt(l^2-m^2) S_m
       (d/dz - i d/dx) S_m =  q sqrt((l+m)(l+m-1)) S_m-1

   The numbers g are the coupling tensor of (l, 1, l-1) times (2l+1) sqrt(l). */
typedef struct eqnn__gradient_term { int axis, n; double g; } eqnn__gradient_term;

static int eqnn__gradient_terms(int l, int m, eqnn__gradient_term t[5])
{
    int s = m < 0 ? -1 : 1, M = m * s, count = 0;
    double q = l > 0 ? sqrt((2.0 * l + 1) / (2.0 * l - 1)) : 0;
    double up = q / 2 * sqrt((double)(l - M) * (l - M - 1)), down = 0;
    if (M > 0) down = q / 2 * sqrt((double)(l + M) * (l + M - 1)) * (M == 1 ? sqrt(2.0) : 1);
    if (M == 0) up *= sqrt(2.0);
    if (M < l) {
        eqnn__gradient_term dy = { 1, m, q * sqrt((double)l * l - (double)M * M) };
        t[count++] = dy;
    }
    if (M + 1 < l) {
        eqnn__gradient_term dz = { 2, s * (M + 1), -up }, dx = { 0, -s * (M + 1), -s * up };
        t[count++] = dz;
        t[count++] = dx;
    }
    if (M > 1 || m == 1) { /* S_0 has no imaginary part: of m = 1 only d/dz leads there, */
        eqnn__gradient_term dz = { 2, s * (M - 1), down };
        t[count++] = dz;
    }
    if (M > 1 || m == -1) { /* of m = -1 only d/dx */
        eqnn__gradient_term dx = { 0, -s * (M - 1), -s * down };
        t[count++] = dx;
    }
    return count;
}

/* A matrix with any strides. */
typedef struct eqnn__strided { double *p; size_t rows, cols; } eqnn__strided;

/* D^l from D^(l-1) and R: since P^l is what r and P^(l-1) couple to, with the coefficients above,

       D^l[k][c] = 1/(l (2l+1)) sum g(k; j, i) g(c; b, a) D^(l-1)[i][a] R[j][b]

   Products of orthogonal matrices only: no angles, no poles, errors of a few 1e-15 at l = 8. */
static void eqnn__wigner_step(int l, const double R[9], eqnn__strided lower, eqnn__strided D)
{
    eqnn__gradient_term tk[5], tc[5];
    for (int k = -l; k <= l; k++) {
        int nk = eqnn__gradient_terms(l, k, tk);
        for (int c = -l; c <= l; c++) {
            int nc = eqnn__gradient_terms(l, c, tc);
            double sum = 0;
            for (int i = 0; i < nk; i++)
                for (int a = 0; a < nc; a++)
                    sum += tk[i].g * tc[a].g * R[3 * tk[i].axis + tc[a].axis] *
                           lower.p[(size_t)(tk[i].n + l - 1) * lower.rows +
                                   (size_t)(tc[a].n + l - 1) * lower.cols];
            D.p[(size_t)(k + l) * D.rows + (size_t)(c + l) * D.cols] = sum / (l * (2.0 * l + 1));
        }
    }
}

/* D^l into a view; the degrees in between take turns in it and in a small square. */
static void eqnn__wigner(int l, const double R[9], eqnn__strided D)
{
    double square[(2 * EQNN__LMAX - 1) * (2 * EQNN__LMAX - 1)];
    eqnn__strided other = { square, (size_t)(2 * l - 1), 1 };
    eqnn__strided a = l % 2 ? other : D, b = l % 2 ? D : other;
    if (l > EQNN__LMAX) {
        for (int k = 0; k <= 2 * l; k++)
            for (int c = 0; c <= 2 * l; c++) D.p[(size_t)k * D.rows + (size_t)c * D.cols] = NAN;
        return;
    }
    a.p[0] = 1;
    for (int k = 1; k <= l; k++) {
        eqnn__wigner_step(k, R, a, b);
        eqnn__strided swap = a;
        a = b;
        b = swap;
    }
}

EQNN_API void eqnn_wigner_D(int l, const double R[9], double *D)
{
    eqnn__strided v = { D, (size_t)(2 * l + 1), 1 };
    if (l >= 0) eqnn__wigner(l, R, v);
}

/* X_n = (n x r) . grad on harmonics. With S_m as above, c = sqrt(l(l+1) - m(m+1)) and
   d = sqrt(l(l+1) - m(m-1)):

       X_x S_m = (-c S_m+1 + d S_m-1)/2        X_y S_m = i m S_m
       X_z S_m = -i (c S_m+1 + d S_m-1)/2      (S_0 = sqrt2 P_0: a factor sqrt2 for m = 1)  */
EQNN_API void eqnn_generators(int l, double *X)
{
    int w = 2 * l + 1;
    double *x = X, *y = X + w * w, *z = X + 2 * w * w;
    if (l < 0) return;
    memset(X, 0, (size_t)(3 * w * w) * sizeof *X);
    for (int m = 1; m <= l; m++) {
        int plus = l + m, minus = l - m;
        double d = 0.5 * sqrt((double)l * (l + 1) - (double)m * (m - 1));
        if (m == 1) d *= sqrt(2.0);
        y[minus * w + plus] = m;
        y[plus * w + minus] = -m;
        x[plus * w + plus - 1] = d; /* antisymmetric: c of m - 1 is d of m */
        x[(plus - 1) * w + plus] = -d;
        z[minus * w + plus - 1] = -d;
        z[(plus - 1) * w + minus] = d;
        if (m == 1) continue;
        x[minus * w + minus + 1] = d;
        x[(minus + 1) * w + minus] = -d;
        z[plus * w + minus + 1] = d;
        z[(minus + 1) * w + plus] = -d;
    }
}

/* ---- labels that turn ---- */

/* An orthogonal matrix is a rotation, or -1 times one. Returns det R as +-1. */
static int eqnn__proper_part(const double R[9], double S[9])
{
    double det = R[0] * (R[4] * R[8] - R[5] * R[7]) - R[1] * (R[3] * R[8] - R[5] * R[6]) +
                 R[2] * (R[3] * R[7] - R[4] * R[6]);
    for (int i = 0; i < 9; i++) S[i] = det < 0 ? -R[i] : R[i];
    return det < 0 ? -1 : 1;
}

/* The matrix of one copy of (l, p): D^l of the rotation, times p when R is improper. */
static void eqnn__irrep_D(const eqnn_type *t, const double R[9], eqnn__strided D)
{
    double S[9];
    int sign = eqnn__proper_part(R, S) < 0 ? t->p : 1;
    eqnn__wigner(t->l, S, D);
    for (int i = 0; sign < 0 && i < t->dim; i++)
        for (int k = 0; k < t->dim; k++) D.p[(size_t)i * D.rows + (size_t)k * D.cols] *= -1;
}

EQNN_API void eqnn_irreps_D(const eqnn_irreps *a, const double R[9], double *D)
{
    if (!a) return;
    size_t n = (size_t)a->cols;
    memset(D, 0, n * n * sizeof *D);
    for (int i = 0; i < a->blocks; i++) {
        const eqnn_block *b = &a->block[i];
        size_t U = (size_t)b->copies, start = (size_t)b->start;
        eqnn__strided first = { D + start * n + start, U * n, U }; /* of channel 0 */
        if (U == 0 || b->type->kind != EQNN_TYPE_IRREP) continue;
        eqnn__irrep_D(b->type, R, first);
        for (int k = 0; k < b->type->dim; k++)
            for (int j = 0; j < b->type->dim; j++) {
                double *e = first.p + (size_t)k * first.rows + (size_t)j * first.cols;
                for (size_t u = 1; u < U; u++) e[u * (n + 1)] = *e;
            }
    }
}

/* out = D x for one block of one row, in double. */
static void eqnn__rotate_block(const eqnn_block *b, const double *D, const eqnn_real *x,
                               eqnn_real *out)
{
    int d = b->type->dim, U = b->copies;
    for (int k = 0; k < d; k++)
        for (int u = 0; u < U; u++) {
            double sum = 0;
            for (int i = 0; i < d; i++) sum += D[k * d + i] * (double)x[b->start + i * U + u];
            out[b->start + k * U + u] = (eqnn_real)sum;
        }
}

EQNN_API eqnn_tensor *eqnn_rotate(eqnn_tensor *x, const double R[9])
{
    if (eqnn__bad(x, "rotate")) return NULL;
    if (!x->label) return eqnn_detach(x);
    eqnn_tensor *y = eqnn__new(x->ctx, x->rows, x->cols);
    if (!y) return NULL;
    y->label = x->label;
    for (int i = 0; i < x->label->blocks; i++) {
        const eqnn_block *b = &x->label->block[i];
        size_t d = (size_t)b->type->dim;
        if (b->type->kind != EQNN_TYPE_IRREP || b->type->l > EQNN__LMAX)
            return eqnn__fail(x->ctx, "rotate: %.60s: %s has no rotation matrix here",
                              x->label->name, b->type->name);
        double *D = (double *)eqnn__step_alloc(x->ctx, d * d * sizeof *D);
        if (!D) return NULL;
        eqnn__strided v = { D, d, 1 };
        eqnn__irrep_D(b->type, R, v);
        for (size_t r = 0; r < (size_t)x->rows; r++)
            eqnn__rotate_block(b, D, x->data + r * (size_t)x->cols, y->data + r * (size_t)x->cols);
    }
    return y;
}

/* max |a - b|, or max |a| without b; NaN when a number is. */
static double eqnn__largest(const eqnn_tensor *a, const eqnn_tensor *b)
{
    double most = 0;
    size_t n = (size_t)a->rows * (size_t)a->cols;
    for (size_t i = 0; i < n; i++) {
        double e = fabs((double)a->data[i] - (b ? (double)b->data[i] : 0));
        if (!(e <= most)) most = e;
        if (e != e) break;
    }
    return most;
}

/* One group element: max |f(R x) - R f(x)|. */
static double eqnn__equivariance_trial(eqnn_function f, eqnn_tensor *const *x, int n, void *user,
                                       int trial, eqnn_tensor *y)
{
    eqnn_ctx *c = y->ctx;
    double R[9], error;
    eqnn_mark before = eqnn_mark_make(c);
    eqnn_rotation_random(c, eqnn_format(c, "equivariance %d", trial), 1, R);
    eqnn_tensor **turned = (eqnn_tensor **)eqnn__step_alloc(c, (size_t)n * sizeof *turned);
    for (int i = 0; turned && i < n; i++) turned[i] = eqnn_rotate(x[i], R);
    if (eqnn_error(c)) return NAN;
    eqnn_tensor *a = f(turned, n, user), *b = eqnn_rotate(y, R);
    if (!a || !b || eqnn_error(c)) return NAN;
    if (a->rows != b->rows || a->cols != b->cols || !eqnn__label_same(a->label, b->label)) {
        eqnn__fail(c, "check_equivariance: the result is [%d,%d] %s, after a rotation [%d,%d] %s",
                   b->rows, b->cols, b->label ? b->label->name : "", a->rows, a->cols,
                   a->label ? a->label->name : "");
        return NAN;
    }
    error = eqnn__largest(a, b);
    eqnn_rewind(before, NULL);
    return error;
}

EQNN_API double eqnn_check_equivariance(eqnn_function f, eqnn_tensor *const *x, int n, void *user,
                                        int trials, double *absolute)
{
    if (absolute) *absolute = NAN;
    for (int i = 0; i < n; i++)
        if (eqnn__bad(x[i], "check_equivariance")) return NAN;
    eqnn_tensor *y = n > 0 ? f(x, n, user) : NULL;
    if (!y) return NAN;
    double size = eqnn__largest(y, NULL), error = 0;
    for (int t = 0; t < trials; t++) {
        double e = eqnn__equivariance_trial(f, x, n, user, t, y);
        if (!(e <= error)) error = e;
        if (e != e) break;
    }
    if (absolute) *absolute = error;
    return size > 0 ? error / size : error;
}

/* ----------------------------------------------------------------------------------------------
   11 >>equivariant
   ---------------------------------------------------------------------------------------------- */

/* What this section works out once per context, found again by content. */
typedef struct eqnn__layout eqnn__layout;
typedef struct eqnn__solid_entry eqnn__solid_entry;
typedef struct eqnn__linear_entry eqnn__linear_entry;
typedef struct eqnn__gate_entry eqnn__gate_entry;
typedef struct eqnn__moment_entry eqnn__moment_entry;
typedef struct eqnn__contraction eqnn__contraction;
typedef struct eqnn__grid_entry eqnn__grid_entry;
struct eqnn__tables {
    eqnn__layout *layouts;
    eqnn__solid_entry *solids;
    eqnn__linear_entry *linears;
    eqnn__gate_entry *gates;
    eqnn__moment_entry *moments;
    eqnn_reduced *reduced;
    eqnn__contraction *contractions;
    eqnn__grid_entry *grids;
};

static struct eqnn__tables *eqnn__tables_of(eqnn_ctx *c)
{
    if (!c->tables) c->tables = (struct eqnn__tables *)eqnn__keep_alloc(c, sizeof *c->tables);
    return c->tables;
}

/* n zeroed things in the step's memory, for lists that plans are made from */
static void *eqnn__temp(eqnn_ctx *c, size_t n, size_t size)
{
    if (n > SIZE_MAX / 2 / size)
        return eqnn__fail(c, "%s: a size overflows", c->op ? c->op : "eqnn");
    void *p = eqnn__step_alloc(c, n * size + 1);
    if (p) memset(p, 0, n * size + 1);
    return p;
}

/* " in layers.0.first", for sentences */
static const char *eqnn__place(eqnn_ctx *c)
{
    size_t n = strlen(c->scope);
    while (n > 0 && c->scope[n - 1] == '.') n--;
    return n ? eqnn_format(c, " in %.*s", (int)n, c->scope) : "";
}

/* Labels a tensor that was just made. */
static eqnn_tensor *eqnn__tag(eqnn_tensor *y, const eqnn_label *label)
{
    if (y) y->label = label;
    return y;
}

/* x without its label */
static eqnn_tensor *eqnn__bare(eqnn_tensor *x)
{
    return x && x->label ? eqnn_as(x, NULL) : x;
}

/* Both have the same columns: equal but for blocks without copies and the splitting of
   invariants. */
static int eqnn__same_columns(const eqnn_label *a, const eqnn_label *b)
{
    if (a == b) return 1;
    if (!a || !b || a->cols != b->cols) return 0;
    if (eqnn__invariant(a) && eqnn__invariant(b)) return 1;
    int i = 0, j = 0;
    for (;; i++, j++) {
        while (i < a->blocks && a->block[i].copies == 0) i++;
        while (j < b->blocks && b->block[j].copies == 0) j++;
        if (i == a->blocks || j == b->blocks) return i == a->blocks && j == b->blocks;
        if (a->block[i].type != b->block[j].type || a->block[i].copies != b->block[j].copies)
            return 0;
    }
}

/* Does x have the columns of that label? No label: invariant numbers. */
static int eqnn__has_columns(const eqnn_tensor *x, const eqnn_label *label)
{
    return x->label ? eqnn__same_columns(x->label, label)
                    : eqnn__invariant(label) && x->cols == label->cols;
}

/* Irreps of x, invariant numbers being so many 0e; NULL and a sentence for other labels. */
static const eqnn_irreps *eqnn__irreps_of(const eqnn_tensor *x, const char *op)
{
    const int scalars[1][3] = {{x->cols, 0, 1}};
    if (!x->label) return eqnn_irreps_blocks(x->ctx, scalars, x->cols > 0);
    for (int b = 0; b < x->label->blocks; b++)
        if (x->label->block[b].type->kind != EQNN_TYPE_IRREP) {
            eqnn__fail(x->ctx, "%s%s: %s are no irreps of O(3)", op, eqnn__place(x->ctx),
                       x->label->name);
            return NULL;
        }
    return x->label;
}

/* --- forms --- */

static void eqnn__slot(eqnn__form *f, int s, int map, int rows, int cols)
{
    f->map[s] = map;
    f->rows[s] = rows;
    f->cols[s] = cols;
}

static void eqnn__form_start(eqnn__form *f, int kind, int slots, int items, const void *plan)
{
    memset(f, 0, sizeof *f);
    f->kind = kind;
    f->slots = slots;
    f->items = items;
    f->plan = plan;
}

/* The form's output in one slot, the others being given. */
static eqnn_tensor *eqnn__form_value(eqnn_ctx *c, const eqnn__form *f, eqnn_tensor *const *v,
                                     int slot)
{
    eqnn_tensor *out[EQNN__SLOTS] = {NULL};
    if (!f->plan || c->failed) return NULL;
    eqnn__form_apply(c, f, v, NULL, 1u << slot, out);
    return out[slot];
}

/* Rows stretch: one row serves all. */
static int eqnn__row_map(int rows, int items)
{
    return rows == items ? EQNN__EACH : EQNN__ONE;
}

/* How many rows tensors have that are stretched to each other; -1 when they do not fit. */
static int eqnn__stretch_rows(eqnn_tensor *const *x, int n)
{
    int rows = 1;
    for (int i = 0; i < n; i++)
        if (x[i] && x[i]->rows != 1) {
            if (rows != 1 && rows != x[i]->rows) return -1;
            rows = x[i]->rows;
        }
    return rows;
}

/* --- layout --- */

/* e3nn stores a block copy by copy, we store it component by component:

       2x1o in e3nn's order   | x0 y0 z0  x1 y1 z1 |      in ours   | x0 x1  y0 y1  z0 z1 |

   from and to are the columns to take for either direction; same: they change nothing. map tells to
   which copy a column belongs. */
struct eqnn__layout {
    eqnn__layout *next;
    const eqnn_label *label;
    eqnn_ints *from, *to;
    int same;
    const void *copies; /* plan of the copy form: a column times its copy's number */
    eqnn_ints *scalars; /* columns of the 0e blocks, when asked for                */
};

static int eqnn__layout_fill(eqnn_ctx *c, eqnn__layout *a, const eqnn_label *label)
{
    size_t n = (size_t)label->cols;
    int *from = (int *)eqnn__temp(c, n, sizeof(int)), *to = (int *)eqnn__temp(c, n, sizeof(int));
    int *copy = (int *)eqnn__temp(c, n, sizeof(int)), first = 0;
    if (!from || !to || !copy) return 0;
    a->label = label;
    a->same = 1;
    for (int b = 0; b < label->blocks; b++) {
        const eqnn_block *k = &label->block[b];
        int d = k->type->dim;
        for (int u = 0; u < k->copies; u++)
            for (int m = 0; m < d; m++) {
                int ours = k->start + m * k->copies + u, theirs = k->start + u * d + m;
                from[ours] = theirs;
                to[theirs] = ours;
                copy[ours] = first + u;
                if (ours != theirs) a->same = 0;
            }
        first += k->copies;
    }
    a->from = eqnn_ints_make(c, label->cols, from, label->cols, 1);
    a->to = eqnn_ints_make(c, label->cols, to, label->cols, 1);
    a->copies = eqnn__copy_plan(c, copy, label->cols, label->copies);
    return a->from && a->to && a->copies;
}

static const eqnn__layout *eqnn__layout_of(eqnn_ctx *c, const eqnn_label *label)
{
    struct eqnn__tables *t = eqnn__tables_of(c);
    if (!t) return NULL;
    for (eqnn__layout *a = t->layouts; a; a = a->next)
        if (a->label == label) return a;
    eqnn__layout *a = (eqnn__layout *)eqnn__keep_alloc(c, sizeof *a);
    if (!a || !eqnn__layout_fill(c, a, label)) return NULL;
    a->next = t->layouts;
    return t->layouts = a;
}

EQNN_API eqnn_tensor *eqnn_from_e3nn(eqnn_tensor *x, const eqnn_irreps *irreps)
{
    if (eqnn__bad(x, "from_e3nn")) return NULL;
    eqnn_ctx *c = x->ctx;
    if (!irreps) return eqnn__fail(c, "from_e3nn: the irreps are missing (NULL)");
    if (!eqnn__invariant(x->label))
        return eqnn__fail(c, "from_e3nn: the columns are %s in eqnn's order already",
                          x->label->name);
    if (x->cols != irreps->cols)
        return eqnn__fail(c, "from_e3nn: [%d,%d] is no %s, which has %d columns", x->rows, x->cols,
                          irreps->name, irreps->cols);
    const eqnn__layout *a = eqnn__layout_of(c, irreps);
    if (!a) return NULL;
    return a->same ? eqnn_as(x, irreps) : eqnn__tag(eqnn_columns(eqnn__bare(x), a->from), irreps);
}

EQNN_API eqnn_tensor *eqnn_to_e3nn(eqnn_tensor *x)
{
    if (eqnn__bad(x, "to_e3nn")) return NULL;
    if (!x->label) return x;
    const eqnn__layout *a =
        eqnn__irreps_of(x, "to_e3nn") ? eqnn__layout_of(x->ctx, x->label) : NULL;
    if (!a) return NULL;
    return a->same ? eqnn_as(x, NULL) : eqnn_columns(eqnn_as(x, NULL), a->to);
}

/* --- copies --- */

/* g[r, c] = a[r, c] b[r, copy of c], or (slot 1) the sums over each copy's components of a g */
static eqnn_tensor *eqnn__copy_form(const void *plan, eqnn_tensor *a, eqnn_tensor *b,
                                    eqnn_tensor *g, int cols_b, int slot)
{
    eqnn__form f;
    eqnn_tensor *v[EQNN__SLOTS] = {a, b, g};
    int rows = eqnn__stretch_rows(v, 3);
    eqnn__form_start(&f, EQNN__COPY, 3, rows, plan);
    eqnn__slot(&f, 0, eqnn__row_map(a->rows, rows), a->rows, a->cols);
    eqnn__slot(&f, 1, b ? eqnn__row_map(b->rows, rows) : EQNN__EACH, b ? b->rows : rows, cols_b);
    eqnn__slot(&f, 2, EQNN__EACH, rows, a->cols);
    return eqnn__form_value(a->ctx, &f, v, slot);
}

EQNN_API eqnn_tensor *eqnn_scale_copies(eqnn_tensor *x, eqnn_tensor *a)
{
    if (eqnn__bad2(x, a, "scale_copies")) return NULL;
    eqnn_tensor *both[2] = {x, a};
    int copies = x->label ? x->label->copies : x->cols;
    if (a->cols != copies || eqnn__stretch_rows(both, 2) < 0)
        return eqnn__fail(x->ctx,
                          "scale_copies%s: %s [%d,%d] has %d copies, the numbers are [%d,%d]",
                          eqnn__place(x->ctx), eqnn__label_text(x->label), x->rows, x->cols, copies,
                          a->rows, a->cols);
    if (!eqnn__invariant(a->label))
        return eqnn__fail(x->ctx, "scale_copies%s: the numbers %s are not invariant",
                          eqnn__place(x->ctx), a->label->name);
    if (!x->label) return eqnn_mul(x, eqnn__bare(a));
    const eqnn__layout *k = eqnn__layout_of(x->ctx, x->label);
    return k ? eqnn__tag(eqnn__copy_form(k->copies, x, a, NULL, copies, 2), x->label) : NULL;
}

EQNN_API eqnn_tensor *eqnn_square_copies(eqnn_tensor *x)
{
    if (eqnn__bad(x, "square_copies")) return NULL;
    if (!x->label) return eqnn_square(x);
    const eqnn__layout *k =
        eqnn__irreps_of(x, "square_copies") ? eqnn__layout_of(x->ctx, x->label) : NULL;
    return k ? eqnn__copy_form(k->copies, x, NULL, x, x->label->copies, 1) : NULL;
}

/* --- harmonics --- */

/* The gradient of solid harmonics is a constant combination of those one degree lower,

       dP^l_m / dr_j = sum over n of g P^{l-1}_n     (g: (2l+1) sqrt(l) C(l,1,l-1)[m][j][n])

   so the rule dr_j = sum over l, m, n of g (cotangent of P^l_m) P^{l-1}_n is a form with slots
   cotangent, P, dr, and P is the operation's own result. Derivatives of the rule are the form again
   and, through P, this rule: any order. */
struct eqnn__solid_entry {
    eqnn__solid_entry *next;
    int lmax;
    const void *plan;
};

static const void *eqnn__solid_plan_make(eqnn_ctx *c, int lmax)
{
    eqnn__gradient_term term[5];
    size_t room = 5 * (size_t)(lmax + 1) * (size_t)(lmax + 1);
    eqnn__poly_record *record = (eqnn__poly_record *)eqnn__temp(c, room, sizeof *record);
    int n = 0;
    for (int l = 1; record && l <= lmax; l++)
        for (int m = -l; m <= l; m++) {
            int terms = eqnn__gradient_terms(l, m, term);
            for (int k = 0; k < terms; k++, n++) {
                record[n].c = term[k].g;
                record[n].col[0] = l * l + l + m;
                record[n].col[1] = (l - 1) * (l - 1) + l - 1 + term[k].n;
                record[n].col[2] = term[k].axis;
            }
        }
    return record ? eqnn__poly_plan(c, 3, record, n) : NULL;
}

static const void *eqnn__solid_plan(eqnn_ctx *c, int lmax)
{
    struct eqnn__tables *t = eqnn__tables_of(c);
    if (!t) return NULL;
    for (eqnn__solid_entry *e = t->solids; e; e = e->next)
        if (e->lmax == lmax) return e->plan;
    eqnn__solid_entry *e = (eqnn__solid_entry *)eqnn__keep_alloc(c, sizeof *e);
    if (!e || !(e->plan = eqnn__solid_plan_make(c, lmax))) return NULL;
    e->lmax = lmax;
    e->next = t->solids;
    t->solids = e;
    return e->plan;
}

static void eqnn__solid_rule(eqnn__sweep *s, const struct eqnn__node *n)
{
    eqnn_tensor *g = eqnn__cotangent(s, n, 0), *Y = n->out[0];
    if (!g || n->i[0] == 0 || !eqnn__wants(s, n, 0)) return;
    eqnn__form f;
    eqnn_tensor *v[EQNN__SLOTS] = {g, Y};
    eqnn__form_start(&f, EQNN__POLY, 3, Y->rows, eqnn__solid_plan(Y->ctx, n->i[0]));
    eqnn__slot(&f, 0, EQNN__EACH, Y->rows, Y->cols);
    eqnn__slot(&f, 1, EQNN__EACH, Y->rows, Y->cols);
    eqnn__slot(&f, 2, EQNN__EACH, Y->rows, 3);
    if (n->i[0] > EQNN__SOLID_LMAX) {
        eqnn__give(s, n, 0, eqnn__form_value(Y->ctx, &f, v, 2));
        return;
    }
    /* The same numbers from a kernel made for them; the node is the form's, so that every higher
       order is there too. */
    eqnn_tensor *out[EQNN__SLOTS] = {NULL, NULL, eqnn__new(Y->ctx, Y->rows, 3)};
    if (!out[2]) return;
    Y->ctx->k->solid_vjp(&Y->ctx->device, n->i[0], (size_t)Y->rows, n->in[0]->data, g->data,
                         out[2]->data);
    eqnn__form_record(Y->ctx, &f, v, NULL, 3u, 4u, out);
    eqnn__give(s, n, 0, out[2]);
}

/* r^l Y(r) of degrees 0..lmax in component normalisation */
static eqnn_tensor *eqnn__solid(eqnn_tensor *r, int lmax)
{
    eqnn_tensor *y = r ? eqnn__new(r->ctx, r->rows, (lmax + 1) * (lmax + 1)) : NULL;
    if (!y) return NULL;
    r->ctx->k->solid(&r->ctx->device, lmax, (size_t)r->rows, r->data, y->data, NULL);
    struct eqnn__node *n = eqnn__record(r->ctx, EQNN__OP_SOLID, &r, 1, &y, 1);
    if (n) n->i[0] = lmax;
    return y;
}

/* r / |r|. Below |r| = 1e-12 it is 1e12 r, as in e3nn, but with gradient 0: the true one is
   without bound. */
static eqnn_tensor *eqnn__unit(eqnn_tensor *r)
{
    eqnn_tensor *square = eqnn_sum_cols(eqnn_square(r));
    eqnn_tensor *far = square ? eqnn_less(eqnn_full(r->ctx, 1, 1, 1e-24), square) : NULL;
    eqnn_tensor *near = eqnn_scale(eqnn_shift(eqnn_neg(far), 1), 1e12);
    eqnn_tensor *unit = eqnn_mul(r, eqnn_rsqrt(eqnn_mul(square, far)));
    return eqnn_add(unit, eqnn_mul(eqnn_detach(r), near));
}

/* One number per degree: "integral" makes the harmonics orthonormal on the sphere, "norm" gives
   each degree length 1. */
static eqnn_tensor *eqnn__harmonics_scale(eqnn_tensor *Y, int lmax, eqnn_harmonics_kind kind)
{
    double *k = Y ? (double *)eqnn__temp(Y->ctx, (size_t)lmax + 1, sizeof *k) : NULL;
    if (!k) return NULL;
    if (kind == EQNN_COMPONENT) return Y;
    for (int l = 0; l <= lmax; l++)
        k[l] = kind == EQNN_NORM ? 1 / sqrt(2 * l + 1.0) : 1 / sqrt(4 * EQNN__PI);
    return eqnn_scale_copies(Y, eqnn_from_double(Y->ctx, 1, lmax + 1, k));
}

/* Degree l of a vector has parity (-1)^l, of a pseudovector +1. */
static const eqnn_irreps *eqnn__harmonics_label(eqnn_ctx *c, int lmax, int p)
{
    if (p < 0) return eqnn_irreps_spherical(c, lmax);
    int (*block)[3] = (int (*)[3])eqnn__temp(c, (size_t)lmax + 1, sizeof *block);
    for (int l = 0; block && l <= lmax; l++) {
        block[l][0] = block[l][2] = 1;
        block[l][1] = l;
    }
    return block ? eqnn_irreps_blocks(c, (const int (*)[3])block, lmax + 1) : NULL;
}

EQNN_API eqnn_tensor *eqnn_spherical_harmonics(eqnn_tensor *r, int lmax,
                                               const eqnn_harmonics_opts *opts)
{
    if (eqnn__bad(r, "spherical_harmonics")) return NULL;
    eqnn_ctx *c = r->ctx;
    const eqnn_label *a = r->label;
    int vector = !a || (a->blocks == 1 && a->block[0].type->kind == EQNN_TYPE_IRREP &&
                        a->block[0].type->l == 1);
    if (r->cols != 3 || !vector)
        return eqnn__fail(c, "spherical_harmonics%s: [%d,%d] of %s is no list of vectors [n,3]",
                          eqnn__place(c), r->rows, r->cols, eqnn__label_text(a));
    if (lmax < 0 || lmax > 1000)
        return eqnn__fail(c, "spherical_harmonics: degree %d is not possible", lmax);
    const eqnn_irreps *label = eqnn__harmonics_label(c, lmax, a ? a->block[0].type->p : -1);
    r = eqnn__bare(r);
    if (opts && opts->normalize) r = eqnn__unit(r);
    eqnn_tensor *Y = label ? eqnn__tag(eqnn__solid(r, lmax), label) : NULL;
    return eqnn__harmonics_scale(Y, lmax, opts ? opts->kind : EQNN_COMPONENT);
}

/* --- radial bases --- */

/* the constant row first, first + step, ... */
static eqnn_tensor *eqnn__steps(eqnn_ctx *c, int n, double first, double step)
{
    double *v = (double *)eqnn__temp(c, (size_t)n, sizeof *v);
    for (int i = 0; v && i < n; i++) v[i] = first + i * step;
    return v ? eqnn_from_double(c, 1, n, v) : NULL;
}

/* 1 where low < x < high, else 0 */
static eqnn_tensor *eqnn__between(eqnn_tensor *x, double low, double high)
{
    eqnn_ctx *c = x->ctx;
    return eqnn_mul(eqnn_less(eqnn_full(c, 1, 1, low), x), eqnn_less(x, eqnn_full(c, 1, 1, high)));
}

/* The bumps around equally spaced centres, t = (x - centre) / step. With a cutoff the two
   outermost of number + 2 centres are left out. */
static eqnn_tensor *eqnn__radial_bumps(eqnn_tensor *x, int number, double start, double end,
                                       eqnn_basis basis, int cutoff, double scale)
{
    int gaps = cutoff ? number + 1 : number > 1 ? number - 1 : 1;
    double step = (end - start) / gaps, first = cutoff ? start + step : start;
    eqnn_tensor *t =
        eqnn_sub(eqnn_scale(x, 1 / step), eqnn__steps(x->ctx, number, first / step, 1));
    if (basis == EQNN_COSINE_BASIS) return eqnn_scale(eqnn_map(t, EQNN_COSINE_BUMP, 0, 0), scale);
    if (basis == EQNN_GAUSSIAN) return eqnn_scale(eqnn_exp(eqnn_neg(eqnn_square(t))), scale / 1.12);
    eqnn_tensor *left = eqnn_map(eqnn_shift(t, 1), EQNN_SUS, 0, 0);
    eqnn_tensor *right = eqnn_map(eqnn_shift(eqnn_neg(t), 1), EQNN_SUS, 0, 0);
    return eqnn_scale(eqnn_mul(left, right), scale * 1.14136 * exp(2.0));
}

/* fourier: cos(pi i s) / sqrt(1/4 + number/2), i = 0.., or with a cutoff sin(pi i s), i = 1..,
   within 0 < s < 1 */
static eqnn_tensor *eqnn__radial_fourier(eqnn_tensor *x, int number, double start, double end,
                                         int cutoff, double scale)
{
    eqnn_tensor *s = eqnn_scale(eqnn_shift(x, -start), 1 / (end - start));
    eqnn_tensor *angle = eqnn_mul(s, eqnn__steps(x->ctx, number, cutoff ? EQNN__PI : 0, EQNN__PI));
    eqnn_tensor *wave =
        eqnn_scale(cutoff ? eqnn_sin(angle) : eqnn_cos(angle), scale / sqrt(0.25 + number / 2.0));
    return cutoff && s ? eqnn_mul(wave, eqnn__between(s, 0, 1)) : wave;
}

/* bessel: sqrt(2/c) sin(pi i u/c) / u, u = x - start, c = end - start, with its limit at u = 0 */
static eqnn_tensor *eqnn__radial_bessel(eqnn_tensor *x, int number, double start, double end,
                                        int cutoff, double scale)
{
    double c = end - start, k = EQNN__PI / c;
    eqnn_tensor *u = eqnn_shift(x, -start);
    eqnn_tensor *wave = eqnn_map(eqnn_mul(u, eqnn__steps(x->ctx, number, k, k)), EQNN_SINC, 0, 0);
    double height = scale * sqrt(2 / c) * k;
    wave = eqnn_mul(wave, eqnn__steps(x->ctx, number, height, height));
    return cutoff && u ? eqnn_mul(wave, eqnn__between(u, 0, c)) : wave;
}

EQNN_API eqnn_tensor *eqnn_radial_basis(eqnn_tensor *x, int number, double end,
                                        const eqnn_radial_opts *opts)
{
    if (eqnn__bad(x, "radial_basis")) return NULL;
    eqnn_radial_opts o;
    memset(&o, 0, sizeof o);
    if (opts) o = *opts;
    if (x->cols != 1 || !eqnn__invariant(x->label))
        return eqnn__fail(x->ctx, "radial_basis%s: [%d,%d] of %s is no list of lengths [n,1]",
                          eqnn__place(x->ctx), x->rows, x->cols, eqnn__label_text(x->label));
    if (number < 1 || !(end > o.start))
        return eqnn__fail(x->ctx, "radial_basis: %d functions from %g to %g are not possible",
                          number, o.start, end);
    double scale = o.unscaled ? 1 : sqrt((double)number);
    x = eqnn__bare(x);
    if (!x) return NULL;
    if (o.basis == EQNN_FOURIER)
        return eqnn__radial_fourier(x, number, o.start, end, o.cutoff, scale);
    if (o.basis == EQNN_BESSEL)
        return eqnn__radial_bessel(x, number, o.start, end, o.cutoff, scale);
    return eqnn__radial_bumps(x, number, o.start, end, o.basis, o.cutoff, scale);
}

/* --- products: what they are --- */

/* A path with everything looked up: u, v, w copies in first, second and third; x, y, z first
   columns (component strides u, v, zs); weight is the first of its weights. The value of scale is

       sqrt( irrep factor * out_var * path_weight / fan )                                        */
typedef struct eqnn__term {
    eqnn_mode mode;
    int weighted, l1, l2, l3, u, v, w, x, y, z, zs, io, weight;
    double scale;
} eqnn__term;

/* How a path is computed: coupled with channels running over the first or the second factor;
   record by record with and without weights; or, for uvw, coupled into all pairs of copies and
   then mixed. */
enum {
    EQNN__ALONG_X,
    EQNN__ALONG_Y,
    EQNN__POLY_WEIGHTED,
    EQNN__POLY_FREE,
    EQNN__FULL,
    EQNN__GROUPS
};

/* uvw: t[k][pair] = sum C x[u] y[v], then z[k] = t[k] W. With shared weights all pairs that lead
   to one output block stand together and are mixed by one matrix, for which the weights are put in
   order. Few copies along edges: P[j][i] = sum y[j] x[i], of whole rows, then t = C P at the
   target. */
typedef struct eqnn__full {
    int along_y, cols, outer_cols;
    const void *couple, *mix;
    const void *outer, *contract; /* P and C; NULL: coupled at once */
    eqnn_ints *order; /* weights in the order of the pairs; NULL: as they are */
} eqnn__full;

struct eqnn_product {
    eqnn_product *next;
    int kind;                           /* which of the makers below                        */
    eqnn_ctx *ctx;
    const eqnn_irreps *in1, *in2, *out;
    const eqnn_irreps *wish;            /* what the maker was given as output or filter     */
    int paths, weights;
    eqnn_path *path;
    eqnn__term *term;
    int *reached;                       /* per block of out                                 */
    eqnn_irrep_kind irrep_kind;
    eqnn_path_kind path_kind;
    double *var[3];                     /* per block; NULL: 1                               */
    int var_count[3];
    int members[EQNN__GROUPS];
    const void *plan[EQNN__GROUPS];
    eqnn__full *full[2];                /* a row of weights for each row of x; shared       */
};
struct eqnn__product_cache { eqnn_product *first; };

/* From channelwise on the wish may be missing. */
enum {
    EQNN__PRODUCT_MADE,
    EQNN__PRODUCT_FULL,
    EQNN__PRODUCT_SQUARE_FULL,
    EQNN__PRODUCT_CHANNELWISE,
    EQNN__PRODUCT_MERGED,
    EQNN__PRODUCT_OUTER,
    EQNN__PRODUCT_ELEMENTWISE,
    EQNN__PRODUCT_SQUARE
};

static const char *eqnn__mode_name(eqnn_mode mode)
{
    static const char *const name[] = {"uvw", "uvu", "uvv", "uuw", "uuu", "uvuv", "uvu<v", "u<vw"};
    return mode <= EQNN_U_LESS_VW ? name[mode] : "?";
}

/* how many products of inputs are summed into one output component */
static double eqnn__fan(const eqnn__term *t)
{
    double u = t->u, v = t->v;
    switch (t->mode) {
    case EQNN_UVW: return u * v;
    case EQNN_UVU: return v;
    case EQNN_UVV: return u;
    case EQNN_UUW: return u;
    case EQNN_U_LESS_VW: return u * (u - 1) / 2;
    default: return 1;
    }
}

static double eqnn__term_weights(const eqnn__term *t)
{
    double u = t->u, v = t->v, w = t->w;
    if (!t->weighted) return 0;
    switch (t->mode) {
    case EQNN_UVW: return u * v * w;
    case EQNN_UUW: return u * w;
    case EQNN_UUU: return u;
    case EQNN_UVU_LESS: return u * (u - 1) / 2;
    case EQNN_U_LESS_VW: return u * (u - 1) / 2 * w;
    default: return u * v;
    }
}

/* the copies each mode asks for */
static int eqnn__mode_fits(const eqnn__term *t)
{
    int64_t u = t->u, v = t->v, w = t->w;
    switch (t->mode) {
    case EQNN_UVW: return t->weighted;
    case EQNN_UVU: return w == u;
    case EQNN_UVV: return w == v;
    case EQNN_UUW: return u == v && (t->weighted || w == 1);
    case EQNN_UUU: return u == v && v == w;
    case EQNN_UVUV: return w == u * v;
    case EQNN_UVU_LESS: return u == v && w == u * (u - 1) / 2;
    case EQNN_U_LESS_VW: return u == v && t->weighted;
    default: return 0;
    }
}

/* Looks a path up in the labels; 0 and a sentence when it is not possible. */
static int eqnn__term_fill(eqnn_product *p, int i)
{
    const eqnn_path *a = &p->path[i];
    eqnn__term *t = &p->term[i];
    if (a->i1 < 0 || a->i1 >= p->in1->blocks || a->i2 < 0 || a->i2 >= p->in2->blocks || a->io < 0 ||
        a->io >= p->out->blocks) {
        eqnn__fail(p->ctx, "product: path %d (%d,%d,%d): %s, %s and %s have not so many blocks", i,
                   a->i1, a->i2, a->io, p->in1->name, p->in2->name, p->out->name);
        return 0;
    }
    const eqnn_block *x = &p->in1->block[a->i1], *y = &p->in2->block[a->i2],
                     *z = &p->out->block[a->io];
    int l1 = x->type->l, l2 = y->type->l, l3 = z->type->l;
    if (x->type->p * y->type->p != z->type->p || l3 < abs(l1 - l2) || l3 > l1 + l2) {
        eqnn__fail(p->ctx, "product: path %d: %s x %s does not contain %s", i, x->type->name,
                   y->type->name, z->type->name);
        return 0;
    }
    t->mode = a->mode;
    t->weighted = !a->unweighted;
    t->l1 = l1, t->l2 = l2, t->l3 = l3;
    t->u = x->copies, t->v = y->copies, t->w = z->copies;
    t->x = x->start, t->y = y->start, t->z = z->start;
    t->zs = z->copies;
    t->io = a->io;
    if (eqnn__mode_fits(t)) return 1;
    eqnn__fail(p->ctx, "product: path %d: %s%s is not possible for %d, %d and %d copies", i,
               t->weighted ? "" : "unweighted ", eqnn__mode_name(t->mode), t->u, t->v, t->w);
    return 0;
}

static double eqnn__var(const eqnn_product *p, int which, int block)
{
    return p->var[which] ? p->var[which][block] : 1;
}

static double eqnn__term_scale(const eqnn_product *p, int i)
{
    const eqnn__term *t = &p->term[i];
    double factor = 1, fan = 0, weight = p->path[i].path_weight;
    int same = 0, square = p->kind == EQNN__PRODUCT_SQUARE || p->kind == EQNN__PRODUCT_SQUARE_FULL;
    eqnn_irrep_kind kind = square ? EQNN_IRREP_PLAIN : p->irrep_kind; /* in a square's weights */
    if (kind == EQNN_IRREP_COMPONENT) factor = 2 * t->l3 + 1;
    if (kind == EQNN_IRREP_NORM) factor = (2.0 * t->l1 + 1) * (2 * t->l2 + 1);
    for (int k = 0; k < p->paths; k++)
        if (p->path[k].io == t->io) {
            same++;
            fan += eqnn__var(p, 0, p->path[k].i1) * eqnn__var(p, 1, p->path[k].i2) *
                   eqnn__fan(&p->term[k]);
        }
    if (p->path_kind == EQNN_PATH)
        fan = eqnn__var(p, 0, p->path[i].i1) * eqnn__var(p, 1, p->path[i].i2) * eqnn__fan(t) * same;
    if (p->path_kind == EQNN_PLAIN || !(fan > 0)) fan = 1;
    factor *= eqnn__var(p, 2, t->io) * (weight < 0 ? 0 : weight == 0 ? 1 : weight) / fan;
    return sqrt(factor);
}

static int eqnn__term_group(const eqnn__term *t)
{
    if (t->scale == 0 || t->u == 0 || t->v == 0 || t->w == 0) return -1;
    if (t->mode == EQNN_UVW) return EQNN__FULL;
    if (t->mode == EQNN_UVU || (t->mode == EQNN_UVUV && t->v == 1) ||
        (t->mode == EQNN_UUU && t->u == 1))
        return EQNN__ALONG_X;
    if (t->mode == EQNN_UVV || t->mode == EQNN_UVUV) return EQNN__ALONG_Y;
    return t->weighted ? EQNN__POLY_WEIGHTED : EQNN__POLY_FREE;
}

/* Equal irreps that are neighbours become one block of the output, so that a mixing behind it is
   one matrix product for each irrep. */
static int eqnn__product_merge(eqnn_product *p)
{
    const eqnn_irreps *old = p->out, *out = eqnn_irreps_simplify(p->ctx, old);
    int block = -1, done = 0;
    if (!out) return 0;
    for (int b = 0; b < old->blocks; b++) {
        if (old->block[b].copies == 0) continue;
        if (block < 0 || out->block[block].type != old->block[b].type) block++, done = 0;
        for (int i = 0; i < p->paths; i++)
            if (p->path[i].io == b) {
                p->term[i].z = out->block[block].start + done;
                p->term[i].zs = out->block[block].copies;
                p->term[i].io = block;
            }
        done += old->block[b].copies;
    }
    p->out = out;
    return 1;
}

/* Everything that follows from labels, paths and options. */
static int eqnn__product_fill(eqnn_product *p)
{
    double weights = 0;
    for (int i = 0; i < p->paths; i++) {
        if (!eqnn__term_fill(p, i)) return 0;
        p->term[i].weight = (int)weights;
        weights += eqnn__term_weights(&p->term[i]);
        if (weights > INT_MAX)
            return eqnn__fail(p->ctx, "product: more weights than an int holds") != NULL;
    }
    p->weights = (int)weights;
    for (int i = 0; i < p->paths; i++) p->term[i].scale = eqnn__term_scale(p, i);
    if (p->kind == EQNN__PRODUCT_MERGED && !eqnn__product_merge(p)) return 0;
    p->reached = (int *)eqnn__keep_alloc(p->ctx, ((size_t)p->out->blocks + 1) * sizeof(int));
    if (!p->reached) return 0;
    for (int i = 0; i < p->paths; i++) {
        int group = eqnn__term_group(&p->term[i]);
        if (group < 0) continue;
        p->members[group]++;
        p->reached[p->term[i].io] = 1;
    }
    return 1;
}

/* --- products: making and finding them --- */

/* The options as numbers that can be compared. */
static void eqnn__product_options(eqnn_product *key, const eqnn_product_opts *o)
{
    const double *const var[3] = {o ? o->in1_var : NULL, o ? o->in2_var : NULL,
                                  o ? o->out_var : NULL};
    key->irrep_kind = o ? o->irrep_kind : EQNN_IRREP_COMPONENT;
    key->path_kind = o ? o->path_kind : EQNN_ELEMENT;
    for (int i = 0; i < 3; i++) key->var[i] = (double *)var[i];
}

static int eqnn__product_same(const eqnn_product *p, const eqnn_product *key,
                              const eqnn_path *paths, int n)
{
    if (p->kind != key->kind || p->in1 != key->in1 || p->in2 != key->in2 || p->wish != key->wish ||
        p->irrep_kind != key->irrep_kind || p->path_kind != key->path_kind)
        return 0;
    for (int i = 0; i < 3; i++) {
        if (!p->var[i] != !key->var[i]) return 0;
        for (int k = 0; p->var[i] && k < p->var_count[i]; k++)
            if (p->var[i][k] != key->var[i][k]) return 0;
    }
    if (p->kind != EQNN__PRODUCT_MADE) return 1;
    if (p->paths != n) return 0;
    for (int i = 0; i < n; i++) {
        const eqnn_path *a = &p->path[i], *b = &paths[i];
        if (a->i1 != b->i1 || a->i2 != b->i2 || a->io != b->io || a->mode != b->mode ||
            !a->unweighted != !b->unweighted || a->path_weight != b->path_weight)
            return 0;
    }
    return 1;
}

static eqnn_product *eqnn__product_find(eqnn_ctx *c, const eqnn_product *key,
                                        const eqnn_path *paths, int n)
{
    if (!c->products)
        c->products = (struct eqnn__product_cache *)eqnn__keep_alloc(c, sizeof *c->products);
    for (eqnn_product *p = c->products ? c->products->first : NULL; p; p = p->next)
        if (eqnn__product_same(p, key, paths, n)) return p;
    return NULL;
}

static int eqnn__product_var(eqnn_product *p, int which, int blocks)
{
    const double *given = p->var[which];
    if (!given) return 1;
    p->var_count[which] = blocks;
    p->var[which] = (double *)eqnn__keep_alloc(p->ctx, ((size_t)blocks + 1) * sizeof(double));
    if (!p->var[which]) return 0;
    memcpy(p->var[which], given, (size_t)blocks * sizeof(double));
    return 1;
}

/* Makes the product that key describes, its output label being out. */
static const eqnn_product *eqnn__product_new(eqnn_ctx *c, const eqnn_product *key,
                                             const eqnn_irreps *out, const eqnn_path *paths, int n)
{
    eqnn_product *p = (eqnn_product *)eqnn__keep_alloc(c, sizeof *p);
    if (!p) return NULL;
    *p = *key;
    p->ctx = c;
    p->out = out;
    p->paths = n;
    p->path = (eqnn_path *)eqnn__keep_alloc(c, ((size_t)n + 1) * sizeof *p->path);
    p->term = (eqnn__term *)eqnn__keep_alloc(c, ((size_t)n + 1) * sizeof *p->term);
    if (!p->path || !p->term) return NULL;
    if (n) memcpy(p->path, paths, (size_t)n * sizeof *paths);
    if (!eqnn__product_var(p, 0, p->in1->blocks) || !eqnn__product_var(p, 1, p->in2->blocks) ||
        !eqnn__product_var(p, 2, out->blocks) || !eqnn__product_fill(p))
        return NULL;
    p->next = c->products->first;
    return c->products->first = p;
}

/* 1 when products can be made from these; fills the key they are found by. */
static int eqnn__product_start(eqnn_ctx *c, eqnn_product *key, int kind, const eqnn_irreps *in1,
                               const eqnn_irreps *in2, const eqnn_irreps *wish,
                               const eqnn_product_opts *opts)
{
    if (!c || c->failed) return 0;
    c->op = "product";
    memset(key, 0, sizeof *key);
    key->kind = kind;
    key->in1 = in1;
    key->in2 = in2;
    key->wish = wish;
    eqnn__product_options(key, opts);
    if (in1 && in2 && (wish || kind >= EQNN__PRODUCT_CHANNELWISE)) return 1;
    eqnn__fail(c, "product%s: irreps are missing (NULL)", eqnn__place(c));
    return 0;
}

EQNN_API const eqnn_product *eqnn_product_make(eqnn_ctx *c, const eqnn_irreps *in1,
                                               const eqnn_irreps *in2, const eqnn_irreps *out,
                                               const eqnn_path *paths, int n,
                                               const eqnn_product_opts *opts)
{
    eqnn_product key;
    if (!eqnn__product_start(c, &key, EQNN__PRODUCT_MADE, in1, in2, out, opts)) return NULL;
    const eqnn_product *p = eqnn__product_find(c, &key, paths, n);
    return p || c->failed ? p : eqnn__product_new(c, &key, out, paths, n);
}

/* Is z contained in x times y? */
static int eqnn__couples(const eqnn_type *x, const eqnn_type *y, const eqnn_type *z)
{
    return x->p * y->p == z->p && abs(x->l - y->l) <= z->l && z->l <= x->l + y->l;
}

EQNN_API const eqnn_product *eqnn_product_full(eqnn_ctx *c, const eqnn_irreps *in1,
                                               const eqnn_irreps *in2, const eqnn_irreps *out,
                                               const eqnn_product_opts *opts)
{
    eqnn_product key;
    if (!eqnn__product_start(c, &key, EQNN__PRODUCT_FULL, in1, in2, out, opts)) return NULL;
    const eqnn_product *p = eqnn__product_find(c, &key, NULL, 0);
    if (p || c->failed) return p;
    size_t most = (size_t)in1->blocks * (size_t)in2->blocks * (size_t)out->blocks;
    eqnn_path *path = (eqnn_path *)eqnn__temp(c, most, sizeof *path);
    int n = 0;
    if (!path) return NULL;
    for (int i = 0; i < in1->blocks; i++)
        for (int j = 0; j < in2->blocks; j++)
            for (int k = 0; k < out->blocks; k++)
                if (eqnn__couples(in1->block[i].type, in2->block[j].type, out->block[k].type)) {
                    path[n].i1 = i;
                    path[n].i2 = j;
                    path[n].io = k;
                    path[n++].mode = EQNN_UVW;
                }
    return eqnn__product_new(c, &key, out, path, n);
}

/* Paths (i, j, own block) into every irrep of the filter; returns how many. block NULL: only
   counts. */
static int eqnn__channelwise_paths(const eqnn_product *key, eqnn_path *path, int (*block)[3])
{
    int n = 0;
    for (int i = 0; i < key->in1->blocks; i++)
        for (int j = 0; j < key->in2->blocks; j++) {
            const eqnn_block *x = &key->in1->block[i], *y = &key->in2->block[j];
            int parity = x->type->p * y->type->p;
            for (int l = abs(x->type->l - y->type->l); l <= x->type->l + y->type->l; l++) {
                if (key->wish && !eqnn_irreps_has(key->wish, l, parity)) continue;
                if (block) {
                    block[n][0] = x->copies, block[n][1] = l, block[n][2] = parity;
                    path[n].i1 = i, path[n].i2 = j, path[n].io = n;
                    path[n].mode = EQNN_UVU;
                }
                n++;
            }
        }
    return n;
}

/* Each path has its own output block; blocks are sorted by (l, p), paths keep their order, so the
   weights lie as e3nn's do. */
static const eqnn_product *eqnn__product_channelwise(eqnn_ctx *c, int kind, const eqnn_irreps *in1,
                                                     const eqnn_irreps *in2,
                                                     const eqnn_irreps *filter,
                                                     const eqnn_product_opts *opts)
{
    eqnn_product key;
    if (!eqnn__product_start(c, &key, kind, in1, in2, filter, opts)) return NULL;
    const eqnn_product *p = eqnn__product_find(c, &key, NULL, 0);
    if (p || c->failed) return p;
    size_t n = (size_t)eqnn__channelwise_paths(&key, NULL, NULL);
    eqnn_path *path = (eqnn_path *)eqnn__temp(c, n, sizeof *path);
    int(*block)[3] = (int(*)[3])eqnn__temp(c, n, sizeof *block),
    *place = (int *)eqnn__temp(c, n, sizeof(int));
    if (!path || !block || !place) return NULL;
    eqnn__channelwise_paths(&key, path, block);
    const eqnn_irreps *mid = eqnn_irreps_blocks(c, (const int (*)[3])block, (int)n);
    mid = mid ? eqnn_irreps_sort(c, mid, place) : NULL;
    if (!mid) return NULL;
    for (size_t i = 0; i < n; i++) path[i].io = place[i];
    return eqnn__product_new(c, &key, mid, path, (int)n);
}

EQNN_API const eqnn_product *eqnn_product_channelwise(eqnn_ctx *c, const eqnn_irreps *in1,
                                                      const eqnn_irreps *in2,
                                                      const eqnn_irreps *filter,
                                                      const eqnn_product_opts *opts)
{
    return eqnn__product_channelwise(c, EQNN__PRODUCT_CHANNELWISE, in1, in2, filter, opts);
}

/* The same product with equal irreps of the output merged: one matrix product per irrep behind
   it. */
static EQNN__MAYBE_UNUSED const eqnn_product *eqnn__product_merged(eqnn_ctx *c,
                                                                   const eqnn_irreps *in1,
                                                                   const eqnn_irreps *in2,
                                                                   const eqnn_irreps *filter)
{
    return eqnn__product_channelwise(c, EQNN__PRODUCT_MERGED, in1, in2, filter, NULL);
}

EQNN_API const eqnn_irreps *eqnn_product_out(const eqnn_product *p) { return p ? p->out : NULL; }
EQNN_API int eqnn_product_weights(const eqnn_product *p) { return p ? p->weights : 0; }
EQNN_API int eqnn_product_paths(const eqnn_product *p) { return p ? p->paths : 0; }

EQNN_API double eqnn_product_coefficient(const eqnn_product *p, int path)
{
    return p && path >= 0 && path < p->paths ? p->term[path].scale : NAN;
}

EQNN_API int eqnn_product_reaches(const eqnn_product *p, int block)
{
    return p && block >= 0 && block < p->out->blocks ? p->reached[block] : 0;
}

/* --- products: plans --- */

/* A list of couplings under construction. */
typedef struct eqnn__couplings { eqnn__couple_path *path; int n; } eqnn__couplings;

/* C [d1][d2][d3], or [d2][d1][d3] when the factors change places */
static const double *eqnn__term_coupling(eqnn_ctx *c, const eqnn__term *t, int swap)
{
    size_t d1 = (size_t)(2 * t->l1 + 1), d2 = (size_t)(2 * t->l2 + 1), d3 = (size_t)(2 * t->l3 + 1);
    const double *C = eqnn__w3j(c, t->l1, t->l2, t->l3);
    if (!C || !swap) return C;
    double *turned = (double *)eqnn__temp(c, d1 * d2 * d3, sizeof *turned);
    for (size_t i = 0; turned && i < d1; i++)
        for (size_t j = 0; j < d2; j++)
            memcpy(turned + (j * d1 + i) * d3, C + (i * d2 + j) * d3, d3 * sizeof *C);
    return turned;
}

/* Channels run over the copies u of x, one coupling for each copy v of y; or (along_y) the other
   way round. Copy (u, v) goes to column z + u zu + v zv, its weight is weight + u v_copies + v. */
static void eqnn__couplings_add(eqnn_ctx *c, eqnn__couplings *a, const eqnn__term *t, int along_y,
                                int z, int zs, int step, int weighted)
{
    const double *C = eqnn__term_coupling(c, t, along_y);
    int d1 = 2 * t->l1 + 1, d2 = 2 * t->l2 + 1, others = along_y ? t->u : t->v;
    for (int k = 0; C && k < others; k++) {
        eqnn__couple_path *p = &a->path[a->n++];
        p->d1 = along_y ? d2 : d1;
        p->d2 = along_y ? d1 : d2;
        p->d3 = 2 * t->l3 + 1;
        p->x = along_y ? t->y : t->x;
        p->xs = along_y ? t->v : t->u;
        p->y = (along_y ? t->x : t->y) + k;
        p->ys = along_y ? t->u : t->v;
        p->g = z + k * step;
        p->gs = zs;
        p->w = !weighted ? -1 : along_y ? t->weight + k * t->v : t->weight + k;
        p->ws = along_y ? 1 : t->v;
        p->channels = along_y ? t->v : t->u;
        p->C = C;
        p->scale = t->scale;
    }
}

static int eqnn__couplings_start(eqnn__couplings *a, const eqnn_product *p, int group)
{
    size_t paths = 0;
    for (int i = 0; i < p->paths; i++)
        if (eqnn__term_group(&p->term[i]) == group)
            paths += (size_t)(p->term[i].u > p->term[i].v ? p->term[i].u : p->term[i].v);
    a->path = (eqnn__couple_path *)eqnn__temp(p->ctx, paths, sizeof *a->path);
    a->n = 0;
    return a->path != NULL;
}

/* uvu, uvv and uvuv */
static const void *eqnn__product_couple_plan(const eqnn_product *p, int group)
{
    eqnn__couplings a;
    int along_y = group == EQNN__ALONG_Y;
    if (!eqnn__couplings_start(&a, p, group)) return NULL;
    for (int i = 0; i < p->paths; i++) {
        const eqnn__term *t = &p->term[i];
        if (eqnn__term_group(t) != group) continue;
        int step = along_y && t->mode == EQNN_UVUV ? t->v : 0;
        eqnn__couplings_add(p->ctx, &a, t, along_y, t->z, t->zs, step, t->weighted);
    }
    return p->ctx->failed ? NULL : eqnn__couple_plan(p->ctx, a.path, a.n);
}

/* Records under construction; record NULL: they are only counted. */
typedef struct eqnn__records {
    eqnn__poly_record *record;
    const double *C;
    int64_t n;
} eqnn__records;

/* z[w] += C x[u] y[v] (weight) for one choice of copies */
static void eqnn__records_add(eqnn__records *a, const eqnn__term *t, int u, int v, int w,
                              int weight)
{
    int d1 = 2 * t->l1 + 1, d2 = 2 * t->l2 + 1, d3 = 2 * t->l3 + 1;
    for (int i = 0; i < d1; i++)
        for (int j = 0; j < d2; j++)
            for (int k = 0; k < d3; k++) {
                double value = a->C[(i * d2 + j) * d3 + k];
                if (fabs(value) < 1e-14) continue;
                if (a->record) {
                    eqnn__poly_record *r = &a->record[a->n];
                    r->c = t->scale * value;
                    r->col[0] = t->x + i * t->u + u;
                    r->col[1] = t->y + j * t->v + v;
                    if (t->weighted) r->col[2] = t->weight + weight;
                    r->col[t->weighted ? 3 : 2] = t->z + k * t->zs + w;
                }
                a->n++;
            }
}

/* Every choice of copies a mode sums over: the definition of the eight modes. */
static void eqnn__records_term(eqnn__records *a, const eqnn__term *t)
{
    int q = 0;
    for (int u = 0; u < t->u; u++)
        for (int v = 0; v < t->v; v++) {
            int diagonal = u == v, above = u < v;
            switch (t->mode) {
            case EQNN_UVW:
                for (int w = 0; w < t->w; w++)
                    eqnn__records_add(a, t, u, v, w, (u * t->v + v) * t->w + w);
                break;
            case EQNN_UVU: eqnn__records_add(a, t, u, v, u, u * t->v + v); break;
            case EQNN_UVV: eqnn__records_add(a, t, u, v, v, u * t->v + v); break;
            case EQNN_UUW:
                for (int w = 0; diagonal && w < t->w; w++)
                    eqnn__records_add(a, t, u, v, w, u * t->w + w);
                break;
            case EQNN_UUU:
                if (diagonal) eqnn__records_add(a, t, u, v, u, u);
                break;
            case EQNN_UVUV: eqnn__records_add(a, t, u, v, u * t->v + v, u * t->v + v); break;
            case EQNN_UVU_LESS:
                if (above) eqnn__records_add(a, t, u, v, q, q);
                break;
            default:
                for (int w = 0; above && w < t->w; w++)
                    eqnn__records_add(a, t, u, v, w, q * t->w + w);
            }
            q += above;
        }
}

/* Copy-wise paths, record by record. */
static const void *eqnn__product_poly_plan(const eqnn_product *p, int group)
{
    eqnn__records a;
    memset(&a, 0, sizeof a);
    for (int pass = 0; pass < 2; pass++) {
        if (a.n > INT_MAX) return eqnn__fail(p->ctx, "product: too many terms for copy-wise paths");
        if (pass &&
            !(a.record = (eqnn__poly_record *)eqnn__temp(p->ctx, (size_t)a.n, sizeof *a.record)))
            return NULL;
        a.n = 0;
        for (int i = 0; i < p->paths; i++) {
            const eqnn__term *t = &p->term[i];
            if (eqnn__term_group(t) != group) continue;
            if (!(a.C = eqnn__w3j(p->ctx, t->l1, t->l2, t->l3))) return NULL;
            eqnn__records_term(&a, t);
        }
    }
    return eqnn__poly_plan(p->ctx, group == EQNN__POLY_FREE ? 3 : 4, a.record, (int)a.n);
}

/* Most terms of a contraction of outer products. */
enum { EQNN__OUTER = 8192 };

/* Where the pairs of a uvw path go in the intermediate t. */
typedef struct eqnn__pairs {
    eqnn_ctx *ctx;
    eqnn__couplings couple;
    eqnn__mix_block *mix;
    int mixes, cols, weights, *order;
} eqnn__pairs;

/* Pairs are numbered with the running factor fastest. */
static void eqnn__pairs_term(eqnn__pairs *a, const eqnn__term *t, int along_y, int first,
                             int stride)
{
    int run = along_y ? t->v : t->u;
    eqnn__couplings_add(a->ctx, &a->couple, t, along_y, first, stride, run, 0);
    for (int q = 0; q < t->u * t->v; q++) {
        int u = along_y ? q / run : q % run, v = along_y ? q % run : q / run;
        for (int w = 0; w < t->w; w++)
            a->order[a->weights++] = t->weight + (u * t->v + v) * t->w + w;
    }
}

static void eqnn__pairs_mix(eqnn__pairs *a, const eqnn__term *t, int pairs, int weight)
{
    eqnn__mix_block *m = &a->mix[a->mixes++];
    m->d = 2 * t->l3 + 1;
    m->U = pairs;
    m->V = t->w;
    m->x = a->cols;
    m->xs = pairs;
    m->w = weight;
    m->g = t->z;
    m->gs = t->zs;
    m->scale = 1;
    a->cols += m->d * pairs;
}

/* Shared weights: one matrix for each output block, over the pairs of all its paths. */
static void eqnn__pairs_shared(eqnn__pairs *a, const eqnn_product *p, int along_y)
{
    for (int io = 0; io < p->out->blocks; io++) {
        int pairs = 0, done = 0, weight = a->weights;
        const eqnn__term *last = NULL;
        for (int i = 0; i < p->paths; i++)
            if (p->term[i].io == io && eqnn__term_group(&p->term[i]) == EQNN__FULL) {
                last = &p->term[i];
                pairs += last->u * last->v;
            }
        for (int i = 0; last && i < p->paths; i++)
            if (p->term[i].io == io && eqnn__term_group(&p->term[i]) == EQNN__FULL) {
                eqnn__pairs_term(a, &p->term[i], along_y, a->cols + done, pairs);
                done += p->term[i].u * p->term[i].v;
            }
        if (last) eqnn__pairs_mix(a, last, pairs, weight);
    }
}

/* Weights of their own for each row: they are not moved, each path has its matrix, v runs
   fastest. */
static void eqnn__pairs_per_row(eqnn__pairs *a, const eqnn_product *p, int along_y)
{
    for (int i = 0; i < p->paths; i++) {
        const eqnn__term *t = &p->term[i];
        if (eqnn__term_group(t) != EQNN__FULL) continue;
        eqnn__pairs_term(a, t, along_y, a->cols, t->u * t->v);
        eqnn__pairs_mix(a, t, t->u * t->v, t->weight);
    }
}

/* The factor with more copies runs, so that there are few couplings. Without reordering y has to,
   unless it has one copy everywhere. */
static int eqnn__full_along_y(const eqnn_product *p, int shared)
{
    int64_t u = 0, v = 0;
    int single = 1;
    for (int i = 0; i < p->paths; i++)
        if (eqnn__term_group(&p->term[i]) == EQNN__FULL) {
            u += p->term[i].u;
            v += p->term[i].v;
            if (p->term[i].v > 1) single = 0;
        }
    return shared ? v > u : !single;
}

static int eqnn__full_order(eqnn__full *full, const eqnn_product *p, const eqnn__pairs *a)
{
    int same = a->weights == p->weights;
    for (int i = 0; i < a->weights; i++)
        if (a->order[i] != i) same = 0;
    if (!same) full->order = eqnn_ints_make(p->ctx, a->weights, a->order, p->weights, 1);
    return same || full->order != NULL;
}

/* t[g] += C[i][j][k] P[y][x] for all couplings, P as wide as X columns; record NULL: counted only,
   up to a bound past which nobody wants them. */
static int eqnn__outer_records(const eqnn__couplings *a, int X, eqnn__poly_record *record)
{
    int n = 0;
    for (int q = 0; q < a->n && n < EQNN__OUTER; q++) {
        const eqnn__couple_path *p = &a->path[q];
        for (int r = 0; r < p->d1 * p->d2 * p->d3; r++) {
            int i = r / p->d3 / p->d2, j = r / p->d3 % p->d2, k = r % p->d3;
            if (fabs(p->C[r]) < 1e-14) continue;
            for (int u = 0; u < p->channels && record; u++) {
                record[n + u].c = p->scale * p->C[r];
                record[n + u].col[0] = (p->y + j * p->ys) * X + p->x + i * p->xs + u;
                record[n + u].col[1] = p->g + k * p->gs + u;
            }
            n += p->channels;
        }
    }
    return n;
}

/* P[j][i] += y[j] x[i] as a coupling whose channels are all columns of x; the columns of y come in
   runs of 1, 3, 5 or 7, for which there are kernels. */
static const void *eqnn__outer_plan(eqnn_ctx *c, int X, int Y)
{
    eqnn__couplings a = { (eqnn__couple_path *)eqnn__temp(c, (size_t)Y, sizeof *a.path), 0 };
    double *one = (double *)eqnn__temp(c, 49 + 25 + 9 + 1, sizeof *one);
    for (int j = 0, d; a.path && one && j < Y; j += d) {
        eqnn__couple_path *p = &a.path[a.n++];
        d = Y - j >= 7 ? 7 : (Y - j - 1) / 2 * 2 + 1;
        double *C = one + (d == 7 ? 0 : d == 5 ? 49 : d == 3 ? 74 : 83);
        for (int k = 0; k < d; k++) C[k * d + k] = 1;
        p->d1 = 1;
        p->d2 = p->d3 = d;
        p->x = p->xs = 0;
        p->y = j;
        p->ys = 1;
        p->g = j * X;
        p->gs = X;
        p->w = -1;
        p->ws = 1;
        p->channels = X;
        p->C = C;
        p->scale = 1;
    }
    return a.path && one ? eqnn__couple_plan(c, a.path, a.n) : NULL;
}

/* Takes the way over outer products when it is much less work: one multiplication for each pair of
   columns and edge, and the records at the nodes (which have at least a few edges, but cost a few
   times as much), against whole vectors of channels for each entry of a coupling. */
static int eqnn__full_outer(eqnn__full *full, const eqnn_product *p, const eqnn__couplings *a)
{
    int X = full->along_y ? p->in2->cols : p->in1->cols;
    int Y = full->along_y ? p->in1->cols : p->in2->cols;
    int n = eqnn__outer_records(a, X, NULL);
    double direct = 0, outer = (double)X * Y + 1.5 * n;
    for (int q = 0; q < a->n; q++)
        direct += a->path[q].d1 * a->path[q].d3 * (double)((a->path[q].channels + 15) / 16 * 16);
    if (n >= EQNN__OUTER || X < 4 || outer > direct / 2) return 1;
    eqnn__poly_record *r = (eqnn__poly_record *)eqnn__temp(p->ctx, (size_t)n, sizeof *r);
    if (!r) return 0;
    eqnn__outer_records(a, X, r);
    full->outer_cols = X * Y;
    full->outer = eqnn__outer_plan(p->ctx, X, Y);
    full->contract = eqnn__poly_plan(p->ctx, 2, r, n);
    return full->outer && full->contract;
}

static eqnn__full *eqnn__full_make(const eqnn_product *p, int shared)
{
    eqnn__pairs a;
    double cols = 0;
    memset(&a, 0, sizeof a);
    for (int i = 0; i < p->paths; i++)
        if (eqnn__term_group(&p->term[i]) == EQNN__FULL)
            cols += (double)p->term[i].u * p->term[i].v * (2 * p->term[i].l3 + 1);
    if (cols > INT_MAX)
        return (eqnn__full *)eqnn__fail(p->ctx, "product: more pairs of copies than an int holds");
    eqnn__full *full = (eqnn__full *)eqnn__keep_alloc(p->ctx, sizeof *full);
    a.ctx = p->ctx;
    a.mix = (eqnn__mix_block *)eqnn__temp(p->ctx, (size_t)p->paths, sizeof *a.mix);
    a.order = (int *)eqnn__temp(p->ctx, (size_t)p->weights, sizeof(int));
    if (!full || !a.mix || !a.order || !eqnn__couplings_start(&a.couple, p, EQNN__FULL))
        return NULL;
    full->along_y = eqnn__full_along_y(p, shared);
    if (shared)
        eqnn__pairs_shared(&a, p, full->along_y);
    else
        eqnn__pairs_per_row(&a, p, full->along_y);
    full->cols = a.cols;
    if (p->ctx->failed) return NULL;
    full->couple = eqnn__couple_plan(p->ctx, a.couple.path, a.couple.n);
    full->mix = eqnn__mix_plan(p->ctx, a.mix, a.mixes);
    if (!full->couple || !full->mix || (shared && !eqnn__full_order(full, p, &a))) return NULL;
    if (shared && !eqnn__full_outer(full, p, &a.couple)) return NULL;
    return full;
}

/* Plans are made when they are first needed. */
static const void *eqnn__product_plan(const eqnn_product *p, int group)
{
    eqnn_product *own = (eqnn_product *)p;
    if (p->plan[group]) return p->plan[group];
    if (group == EQNN__ALONG_X || group == EQNN__ALONG_Y)
        own->plan[group] = eqnn__product_couple_plan(p, group);
    else
        own->plan[group] = eqnn__product_poly_plan(p, group);
    return p->plan[group];
}

static const eqnn__full *eqnn__product_pairs(const eqnn_product *p, int shared)
{
    eqnn_product *own = (eqnn_product *)p;
    if (!p->full[shared]) own->full[shared] = eqnn__full_make(p, shared);
    return p->full[shared];
}

/* --- products: computing them --- */

/* One product of given tensors: on rows (graph NULL) or along the edges of a graph. */
typedef struct eqnn__call {
    const eqnn_product *p;
    const eqnn_graph *graph;
    eqnn_tensor *x, *y, *h, *V;
    int items, rows; /* items multiplied; rows of the result */
    int map_x, map_y, map_h, map_z;
} eqnn__call;

/* The couple form; weighted: with the call's weights. */
static eqnn_tensor *eqnn__call_couple(const eqnn__call *a, const void *plan, int along_y,
                                      int weighted, int rows, int cols, int map_z)
{
    eqnn__form f;
    eqnn_tensor *first = along_y ? a->y : a->x, *second = along_y ? a->x : a->y;
    eqnn_tensor *v[EQNN__SLOTS] = {first, second, weighted ? a->h : NULL, weighted ? a->V : NULL};
    eqnn__form_start(&f, EQNN__COUPLE, 5, a->items, plan);
    f.graph = a->graph;
    eqnn__slot(&f, 0, along_y ? a->map_y : a->map_x, first->rows, first->cols);
    eqnn__slot(&f, 1, along_y ? a->map_x : a->map_y, second->rows, second->cols);
    if (v[2]) eqnn__slot(&f, 2, a->map_h, a->h->rows, a->h->cols);
    if (v[3]) eqnn__slot(&f, 3, EQNN__ONE, a->V->rows, a->V->cols);
    eqnn__slot(&f, 4, map_z, rows, cols);
    return eqnn__form_value(a->x->ctx, &f, v, 4);
}

/* The weights themselves, h V */
static eqnn_tensor *eqnn__call_weights(const eqnn__call *a)
{
    return a->V ? eqnn_matmul(a->h, a->V) : a->h;
}

static eqnn_tensor *eqnn__call_poly(const eqnn__call *a, int weighted)
{
    eqnn__form f;
    eqnn_tensor *w = weighted ? eqnn__call_weights(a) : NULL;
    eqnn_tensor *v[EQNN__SLOTS] = {a->x, a->y, w};
    int z = weighted ? 3 : 2;
    if (weighted && !w) return NULL;
    const void *plan = eqnn__product_plan(a->p, weighted ? EQNN__POLY_WEIGHTED : EQNN__POLY_FREE);
    eqnn__form_start(&f, EQNN__POLY, z + 1, a->items, plan);
    f.graph = a->graph;
    eqnn__slot(&f, 0, a->map_x, a->x->rows, a->x->cols);
    eqnn__slot(&f, 1, a->map_y, a->y->rows, a->y->cols);
    if (w) eqnn__slot(&f, 2, a->map_h, w->rows, w->cols);
    eqnn__slot(&f, z, a->map_z, a->rows, a->p->out->cols);
    return eqnn__form_value(a->x->ctx, &f, v, z);
}

/* y = x W in blocks: the mix form on rows */
static eqnn_tensor *eqnn__mix(const void *plan, eqnn_tensor *x, eqnn_tensor *w, int cols)
{
    eqnn__form f;
    eqnn_tensor *v[EQNN__SLOTS] = {x, w};
    if (!x || !w) return NULL;
    int rows = eqnn__stretch_rows(v, 2);
    eqnn__form_start(&f, EQNN__MIX, 3, rows, plan);
    eqnn__slot(&f, 0, eqnn__row_map(x->rows, rows), x->rows, x->cols);
    eqnn__slot(&f, 1, w->rows == 1 ? EQNN__ONE : EQNN__EACH, w->rows, w->cols);
    eqnn__slot(&f, 2, EQNN__EACH, rows, cols);
    return eqnn__form_value(x->ctx, &f, v, 2);
}

/* t = C P from the sum P of outer products over the items of a row */
static eqnn_tensor *eqnn__call_outer(const eqnn__call *a, const eqnn__full *full)
{
    eqnn__form f;
    eqnn_tensor *P = eqnn__call_couple(a, full->outer, full->along_y, 0, a->rows, full->outer_cols,
                                       a->map_z);
    eqnn__form_start(&f, EQNN__POLY, 2, a->rows, full->contract);
    eqnn__slot(&f, 0, EQNN__EACH, a->rows, full->outer_cols);
    eqnn__slot(&f, 1, EQNN__EACH, a->rows, full->cols);
    return P ? eqnn__form_value(P->ctx, &f, &P, 1) : NULL;
}

/* Shared weights: pairs are summed at the target first, and mixed there, which is far cheaper than
   on every edge. Other weights: on every edge, then the sum. */
static eqnn_tensor *eqnn__call_full(const eqnn__call *a)
{
    int shared = a->h->rows == 1 && !a->V, cols = a->p->out->cols;
    const eqnn__full *full = eqnn__product_pairs(a->p, shared);
    if (!full) return NULL;
    if (shared) {
        eqnn_tensor *w = full->order ? eqnn_columns(a->h, full->order) : a->h;
        eqnn_tensor *sum = full->outer && a->graph
                               ? eqnn__call_outer(a, full)
                               : eqnn__call_couple(a, full->couple, full->along_y, 0, a->rows,
                                                   full->cols, a->map_z);
        return eqnn__mix(full->mix, sum, w, cols);
    }
    eqnn_tensor *t =
        eqnn__call_couple(a, full->couple, full->along_y, 0, a->items, full->cols, EQNN__EACH);
    eqnn_tensor *w = eqnn__call_weights(a);
    if (a->map_h == EQNN__PAIR) w = eqnn_take(w, a->graph->pair_index);
    eqnn_tensor *z = eqnn__mix(full->mix, t, w, cols);
    return a->graph ? eqnn_segment_sum(z, a->graph->target_index) : z;
}

static eqnn_tensor *eqnn__call_group(const eqnn__call *a, int group)
{
    int cols = a->p->out->cols;
    if (group == EQNN__FULL) return eqnn__call_full(a);
    if (group == EQNN__POLY_WEIGHTED || group == EQNN__POLY_FREE)
        return eqnn__call_poly(a, group == EQNN__POLY_WEIGHTED);
    const void *plan = eqnn__product_plan(a->p, group);
    return eqnn__call_couple(a, plan, group == EQNN__ALONG_Y, a->h != NULL, a->rows, cols,
                             a->map_z);
}

/* The sum over all groups of paths; zeros when there is none. */
static eqnn_tensor *eqnn__call_all(const eqnn__call *a)
{
    eqnn_tensor *z = NULL;
    eqnn_ctx *c = a->x->ctx;
    for (int group = 0; group < EQNN__GROUPS; group++) {
        if (!a->p->members[group]) continue;
        eqnn_tensor *part = eqnn__call_group(a, group);
        if (!part) return NULL;
        z = z ? eqnn_add(z, part) : part;
    }
    if (!z && !c->failed) z = eqnn_zeros(c, a->rows, a->p->out->cols);
    return eqnn__tag(z, a->p->out);
}

/* Do the factors have the product's labels? */
static int eqnn__factors_fit(const eqnn_product *p, const eqnn_tensor *x, const eqnn_tensor *y,
                             const char *op)
{
    eqnn_ctx *c = x->ctx;
    if (p->ctx != c) {
        eqnn__fail(c, "%s%s: the product belongs to another context", op, eqnn__place(c));
        return 0;
    }
    for (int i = 0; i < 2; i++) {
        const eqnn_tensor *a = i ? y : x;
        const eqnn_irreps *want = i ? p->in2 : p->in1;
        if (eqnn__has_columns(a, want)) continue;
        eqnn__fail(c, "%s%s: the %s factor is %s [%d,%d], the product wants %s", op, eqnn__place(c),
                   i ? "second" : "first", eqnn__label_text(a->label), a->rows, a->cols,
                   want->name);
        return 0;
    }
    return 1;
}

/* Checks the weights; *h becomes NULL when the product has none. */
static int eqnn__weights_fit(const eqnn_product *p, eqnn_tensor **h, const eqnn_tensor *V,
                             const char *op)
{
    eqnn_ctx *c = p->ctx;
    if (p->weights == 0) {
        *h = NULL;
        return 1;
    }
    if (!*h) {
        eqnn__fail(c, "%s%s: the product has %d weights, none are given", op, eqnn__place(c),
                   p->weights);
        return 0;
    }
    if (eqnn__bad(*h, op) || (V && eqnn__bad(V, op))) return 0;
    int cols = V ? V->cols : (*h)->cols;
    if (!eqnn__invariant((*h)->label) || cols != p->weights || (V && V->rows != (*h)->cols)) {
        eqnn__fail(c, "%s%s: weights %s [%d,%d]%s, the product has %d", op, eqnn__place(c),
                   eqnn__label_text((*h)->label), (*h)->rows, cols, V ? " = h V" : "", p->weights);
        return 0;
    }
    *h = eqnn__bare(*h);
    return *h != NULL;
}

/* x in the columns of another label that lists the same copies in other blocks: "1x1o+1x1o" as
   "2x1o". In e3nn's order they are the same numbers. Other labels: x, and the caller complains. */
static eqnn_tensor *eqnn__recut(eqnn_tensor *x, const eqnn_irreps *want)
{
    eqnn_ctx *c = x->ctx;
    if (!x->label || eqnn__has_columns(x, want)) return x;
    if (eqnn_irreps_simplify(c, x->label) != eqnn_irreps_simplify(c, want)) return x;
    return eqnn_from_e3nn(eqnn_to_e3nn(x), want);
}

EQNN_API eqnn_tensor *eqnn_tensor_product(eqnn_tensor *x, eqnn_tensor *y, eqnn_tensor *w,
                                          const eqnn_product *p)
{
    eqnn__call a;
    const char *op = "tensor_product";
    if (eqnn__bad2(x, y, op) || !p) return NULL;
    x = eqnn__recut(x, p->in1);
    y = eqnn__recut(y, p->in2);
    if (!x || !y || !eqnn__factors_fit(p, x, y, op) || !eqnn__weights_fit(p, &w, NULL, op))
        return NULL;
    eqnn_tensor *all[3] = {x, y, w};
    memset(&a, 0, sizeof a);
    a.p = p;
    a.x = x;
    a.y = y;
    a.h = w;
    a.items = a.rows = eqnn__stretch_rows(all, 3);
    if (a.items < 0)
        return eqnn__fail(x->ctx,
                          "tensor_product%s: %d rows, %d rows and %d rows of weights do not fit",
                          eqnn__place(x->ctx), x->rows, y->rows, w ? w->rows : 1);
    a.map_x = eqnn__row_map(x->rows, a.items);
    a.map_y = eqnn__row_map(y->rows, a.items);
    a.map_h = w ? w->rows == 1 ? EQNN__ONE : EQNN__EACH : EQNN__EACH;
    a.map_z = EQNN__EACH;
    return eqnn__call_all(&a);
}

/* Which rows of h an edge sees; -1 when the numbers do not fit. */
static int eqnn__message_map(const eqnn_tensor *h, const eqnn_tensor *V, const eqnn_graph *g)
{
    if (!h) return EQNN__EACH;
    if (h->rows == g->edges && (h->rows != 1 || V)) return EQNN__EACH;
    if (h->rows == 1) return EQNN__ONE;
    return g->pairs > 0 && h->rows == g->pairs ? EQNN__PAIR : -1;
}

EQNN_API eqnn_tensor *eqnn_message(eqnn_tensor *x, eqnn_tensor *y, eqnn_tensor *h, eqnn_tensor *V,
                                   const eqnn_product *p, const eqnn_graph *g)
{
    eqnn__call a;
    const char *op = "message";
    if (eqnn__bad2(x, y, op) || !p || !g || !eqnn__factors_fit(p, x, y, op) ||
        !eqnn__weights_fit(p, &h, V, op))
        return NULL;
    memset(&a, 0, sizeof a);
    a.p = p;
    a.graph = g;
    a.x = x;
    a.y = y;
    a.h = h;
    a.V = h ? V : NULL;
    a.items = g->edges;
    a.rows = g->targets;
    a.map_x = EQNN__SOURCE;
    a.map_y = EQNN__EACH;
    a.map_h = eqnn__message_map(h, V, g);
    a.map_z = EQNN__TARGET;
    if (x->rows != g->sources || y->rows != g->edges || a.map_h < 0)
        return eqnn__fail(x->ctx,
                          "message%s: %d sources, %d edges (%d pairs); x has %d rows, y has %d, "
                          "the weights have %d",
                          eqnn__place(x->ctx), g->sources, g->edges, g->pairs, x->rows, y->rows,
                          h ? h->rows : 1);
    return eqnn__call_all(&a);
}

EQNN_API eqnn_tensor *eqnn_fully_connected(eqnn_tensor *x, eqnn_tensor *y, const char *name,
                                           const char *irreps_out, const eqnn_product_opts *opts)
{
    if (eqnn__bad2(x, y, "fully_connected")) return NULL;
    x = eqnn_enter(x, name);
    const eqnn_irreps *in1 = x ? eqnn__irreps_of(x, "fully_connected") : NULL;
    const eqnn_irreps *in2 = x ? eqnn__irreps_of(y, "fully_connected") : NULL;
    const eqnn_irreps *out = in1 && in2 ? eqnn_irreps_make(x->ctx, irreps_out) : NULL;
    const eqnn_product *p = out ? eqnn_product_full(x->ctx, in1, in2, out, opts) : NULL;
    if (!p) return NULL;
    eqnn_tensor *w = p->weights ? eqnn_param(x->ctx, "weight", 1, p->weights, NULL) : NULL;
    return eqnn_leave(eqnn_tensor_product(x, y, w, p));
}

/* --- reduced tensor products: the symmetry a formula stands for --- */

#define EQNN__INDICES (EQNN__SLOTS - 1)

/* One exchange of indices: T[i0, i1, ..] = sign T[i_at[0], i_at[1], ..] */
typedef struct eqnn__exchange { signed char at[EQNN__INDICES], sign; } eqnn__exchange;

/* The group that the exchanges of a formula generate, the identity first. */
typedef struct eqnn__symmetry {
    int n, count; /* indices, elements                                                    */
    int none;     /* some exchange both keeps and changes the sign: only T = 0 is left    */
    char letter[EQNN__INDICES + 1];
    eqnn__exchange *element;
} eqnn__symmetry;

/* "-jik": sign and letters; returns what is wrong, or NULL. */
static const char *eqnn__formula_term(const char **at, char letter[EQNN__INDICES + 1], int *n,
                                      int *sign)
{
    const char *s = eqnn__skip_space(*at);
    *sign = *s == '-' ? -1 : 1;
    if (*s == '-') s = eqnn__skip_space(s + 1);
    for (*n = 0; (*s >= 'a' && *s <= 'z') || (*s >= 'A' && *s <= 'Z'); s++) {
        if (*n == EQNN__INDICES) return "there are more than 7 indices";
        if (memchr(letter, *s, (size_t)*n)) return "an index stands twice in a term";
        letter[(*n)++] = *s;
    }
    letter[*n] = 0;
    *at = eqnn__skip_space(s);
    if (**at && **at != '=') return "an index is a letter; terms are joined by =";
    return *n ? NULL : "a term of letters is expected, as in ij=ji";
}

/* All terms; those after the first become exchanges g[0..*count-1]. */
static const char *eqnn__formula_terms(const char *text, eqnn__symmetry *s, eqnn__exchange *g,
                                       int *count)
{
    char letter[EQNN__INDICES + 1];
    int n, first, sign;
    const char *at = text, *wrong = eqnn__formula_term(&at, s->letter, &s->n, &first);
    for (*count = 0; !wrong && *at == '='; ++*count) {
        at++;
        if ((wrong = eqnn__formula_term(&at, letter, &n, &sign)) != NULL) return wrong;
        if (n != s->n) return "the terms have different numbers of indices";
        g[*count].sign = (signed char)(first * sign);
        for (int k = 0; k < n; k++) {
            const char *place = strchr(s->letter, letter[k]);
            if (!place) return "a term has an index that the first has not";
            g[*count].at[k] = (signed char)(place - s->letter);
        }
    }
    return wrong;
}

/* Number of a permutation among the n! of n things, in the order of the alphabet. */
static int eqnn__exchange_rank(const eqnn__exchange *e, int n)
{
    int rank = 0;
    for (int s = 0; s < n; s++) {
        int below = 0;
        for (int k = s + 1; k < n; k++) below += e->at[k] < e->at[s];
        rank = rank * (n - s) + below;
    }
    return rank;
}

/* Multiplies what is there by the generators until nothing new comes. place [n!], zeros. */
static void eqnn__symmetry_close(eqnn__symmetry *s, const eqnn__exchange *g, int generators,
                                 int *place)
{
    for (int k = 0; k < s->n; k++) s->element[0].at[k] = (signed char)k;
    s->element[0].sign = 1;
    s->count = place[0] = 1;
    for (int i = 0; i < s->count; i++)
        for (int j = 0; j < generators; j++) {
            eqnn__exchange e = s->element[i];
            for (int k = 0; k < s->n; k++) e.at[k] = s->element[i].at[(int)g[j].at[k]];
            e.sign = (signed char)(s->element[i].sign * g[j].sign);
            int *at = &place[eqnn__exchange_rank(&e, s->n)];
            if (*at && s->element[*at - 1].sign != e.sign) s->none = 1;
            if (*at) continue;
            s->element[s->count++] = e;
            *at = s->count;
        }
}

/* Reads a formula; 0 and a sentence when it is none. */
static int eqnn__symmetry_make(eqnn_ctx *c, const char *formula, eqnn__symmetry *s)
{
    int generators = 0, all = 1;
    memset(s, 0, sizeof *s);
    eqnn__exchange *g = (eqnn__exchange *)eqnn__temp(c, strlen(formula), sizeof *g);
    if (!g) return 0;
    const char *wrong = eqnn__formula_terms(formula, s, g, &generators);
    if (wrong) {
        eqnn__fail(c, "reduced \"%.60s\": %s", formula, wrong);
        return 0;
    }
    for (int k = 2; k <= s->n; k++) all *= k;
    int *place = (int *)eqnn__temp(c, (size_t)all, sizeof *place);
    s->element = (eqnn__exchange *)eqnn__temp(c, (size_t)all, sizeof *s->element);
    if (!place || !s->element) return 0;
    eqnn__symmetry_close(s, g, generators, place);
    return 1;
}

/* One "i=2x1e" of a list; returns what is wrong, or NULL. */
static const char *eqnn__index_irreps(eqnn_ctx *c, const eqnn__symmetry *s, const char **at,
                                      const eqnn_irreps **in)
{
    const char *text = eqnn__skip_space(*at), *place = *text ? strchr(s->letter, *text) : NULL;
    const char *from = *text ? eqnn__skip_space(text + 1) : text;
    if (!*text || *from != '=') return "a letter and = are expected, as in i=1o";
    if (!place) return "the irreps name an index that the formula has not";
    if (in[place - s->letter]) return "the irreps of an index are given twice";
    size_t n = strcspn(++from, ",");
    const char *own = eqnn_format(c, "%.*s", (int)n, from);
    in[place - s->letter] = own ? eqnn_irreps_make(c, own) : NULL;
    *at = from + n + (from[n] == ',');
    return NULL;
}

/* Indices that change places run over the same irreps. */
static int eqnn__share_irreps(eqnn_ctx *c, const char *formula, const eqnn__symmetry *s,
                              const eqnn_irreps **in)
{
    for (int e = 0; e < s->count; e++)
        for (int k = 0; k < s->n; k++) {
            int to = s->element[e].at[k];
            if (in[k] && !in[to]) in[to] = in[k];
            if (in[k] && in[to] != in[k]) {
                eqnn__fail(c, "reduced \"%.60s\": %c and %c change places, but run over %.60s and "
                              "%.60s", formula, s->letter[k], s->letter[to], in[k]->name,
                           in[to]->name);
                return 0;
            }
        }
    for (int k = 0; k < s->n; k++)
        if (!in[k]) {
            eqnn__fail(c, "reduced \"%.60s\": no irreps are given for index %c", formula,
                       s->letter[k]);
            return 0;
        }
    return 1;
}

static int eqnn__indices_irreps(eqnn_ctx *c, const char *formula, const eqnn__symmetry *s,
                                const char *text, const eqnn_irreps **in)
{
    const char *wrong = NULL;
    if (!strchr(text, '=')) {
        const eqnn_irreps *all = eqnn_irreps_make(c, text);
        for (int k = 0; k < s->n; k++) in[k] = all;
        return all != NULL;
    }
    for (const char *at = text; *at && !wrong && !c->failed;)
        wrong = eqnn__index_irreps(c, s, &at, in);
    if (wrong) eqnn__fail(c, "reduced \"%.60s\", \"%.60s\": %s", formula, text, wrong);
    return !c->failed && eqnn__share_irreps(c, formula, s, in);
}

/* --- reduced tensor products: the basis ---

   An index runs over copies of irreps, its leaves. On one leaf for each index, a tuple, couplings
   from left to right give maps into irreps,

       R_t[k] = sqrt(2L+1) sum over m, i_n of C(l_left, l_n, L)[m][i_n][k] R_left[m] e_in

   one for each list t of intermediate degrees, a tree. All R_t[k] of a tuple are orthonormal. An
   exchange of indices takes tensors on one tuple to tensors on another, or to others on the same
   tuple (the tuple's stabiliser S). So the symmetric tensors are found tuple by tuple: take one of
   every set of tuples that exchanges lead to, project on S, and spread what is left over the set:

       M[t][t'] = <R_t[0], P R_t'[0]>          P = 1/|S| sum over s in S of sign(s) s
       rows of X: an orthonormal basis of the range of M
       Q_u[k]   = 1/sqrt(cosets) sum over cosets s of sign(s) s (sum over t of X[u][t] R_t[k])

   One component k is enough for M, by Schur's lemma; the matrices are as large as the number of
   trees, which is small. */
typedef struct eqnn__leaf { int l, p, start, stride; } eqnn__leaf;

/* What one tuple gives of one irrep: rank copies. */
typedef struct eqnn__family eqnn__family;
struct eqnn__family {
    eqnn__family *next;         /* in the order of the output             */
    int l, p, copy;             /* the irrep; number of its first copy    */
    int tuple[EQNN__INDICES];   /* a leaf for each index                  */
    int cosets, trees, rank;
    int *mid;                   /* [trees][n] degrees, from l of leaf 0 to L */
    double *X;                  /* [rank][trees]                          */
};

struct eqnn_reduced {
    eqnn_reduced *next;
    eqnn_ctx *ctx;
    const char *formula;
    eqnn__symmetry symmetry;
    const eqnn_irreps *in[EQNN__INDICES], *out, *wish, *mid;
    eqnn__leaf *leaf[EQNN__INDICES];
    int leaves[EQNN__INDICES];
    eqnn__family *family;
    eqnn__poly_record *record;  /* Q, made when it is first needed        */
    int64_t records;
    const void *plan, *flat;    /* of x_i, x_j, .., z; of T, z            */
};

/* The tuple at work. */
typedef struct eqnn__tuple {
    const eqnn_reduced *r;
    int n, T[EQNN__INDICES], l[EQNN__INDICES], p;
    size_t size;                 /* product of 2 l + 1                    */
    int stabilisers, cosets;
    int *stabiliser, *coset;     /* elements of the symmetry              */
    double *a, *b;               /* room for couplings                    */
} eqnn__tuple;

/* Where an exchange takes a list with a number for each index. */
static void eqnn__exchanged(const eqnn__exchange *e, int n, const int *from, int *to)
{
    for (int s = 0; s < n; s++) to[(int)e->at[s]] = from[s];
}

/* The first list is before (-1), equal to (0) or after (1) the second. */
static int eqnn__compare_lists(const int *a, const int *b, int n)
{
    for (int s = 0; s < n; s++)
        if (a[s] != b[s]) return a[s] < b[s] ? -1 : 1;
    return 0;
}

/* Stabiliser and cosets of t->T; 0 when another tuple, the last of those that exchanges lead to,
   stands for it. (With leaves in ascending order the last factor of a product then is a small one,
   which makes symmetric contractions cheap.) */
static int eqnn__tuple_fill(eqnn__tuple *t)
{
    const eqnn__symmetry *g = &t->r->symmetry;
    int to[EQNN__INDICES], seen[EQNN__INDICES];
    t->stabilisers = t->cosets = 0;
    for (int e = 0; e < g->count; e++) {
        eqnn__exchanged(&g->element[e], t->n, t->T, to);
        int order = eqnn__compare_lists(to, t->T, t->n), known = 0;
        if (order > 0) return 0;
        if (order == 0) t->stabiliser[t->stabilisers++] = e;
        for (int q = t->cosets - 1; q >= 0 && !known; q--) {
            eqnn__exchanged(&g->element[t->coset[q]], t->n, t->T, seen);
            known = eqnn__compare_lists(to, seen, t->n) == 0;
        }
        if (!known) t->coset[t->cosets++] = e;
    }
    t->size = 1;
    t->p = 1;
    for (int s = 0; s < t->n; s++) {
        const eqnn__leaf *leaf = &t->r->leaf[s][t->T[s]];
        t->l[s] = leaf->l;
        t->p *= leaf->p;
        t->size *= (size_t)(2 * leaf->l + 1);
    }
    return 1;
}

/* to[i] += factor from[i exchanged], i over all numbers of the exchanged tuple */
static void eqnn__add_exchanged(const eqnn__tuple *t, const eqnn__exchange *e, double factor,
                                const double *from, double *to)
{
    size_t stride[EQNN__INDICES], step = 1, at = 0;
    int i[EQNN__INDICES] = { 0 }, l[EQNN__INDICES], n = t->n;
    eqnn__exchanged(e, n, t->l, l);
    for (int s = n - 1; s >= 0; s--) {
        stride[(int)e->at[s]] = step;
        step *= (size_t)(2 * t->l[s] + 1);
    }
    for (size_t k = 0; k < t->size; k++) {
        to[k] += factor * from[at];
        for (int s = n - 1; s >= 0; s--) {
            at += stride[s];
            if (++i[s] <= 2 * l[s]) break;
            at -= stride[s] * (size_t)i[s];
            i[s] = 0;
        }
    }
}

/* The trees of degrees l[0..n-1] that end in L, counted; mid [trees][n] gets them, or NULL. */
static int eqnn__trees(int n, const int *l, int L, int *mid)
{
    int m[EQNN__INDICES], count = 0, s = 1;
    m[0] = l[0];
    for (int k = 1; k < n; k++) m[k] = abs(m[k - 1] - l[k]);
    while (s > 0) {
        if (m[n - 1] == L) {
            if (mid) memcpy(mid + (size_t)count * (size_t)n, m, (size_t)n * sizeof *m);
            count++;
        }
        for (s = n - 1; s > 0 && m[s] == m[s - 1] + l[s];) s--;
        if (s <= 0) break;
        m[s]++;
        for (int k = s + 1; k < n; k++) m[k] = abs(m[k - 1] - l[k]);
    }
    return count;
}

/* to[k][i][j] = sqrt(2 l3 + 1) sum over m of C(l1, l2, l3)[m][j][k] from[m][i], k < rows */
static void eqnn__tree_step(eqnn_ctx *c, const int l[3], size_t size, int rows, const double *from,
                            double *to)
{
    const double *C = eqnn__w3j(c, l[0], l[1], l[2]);
    size_t d1 = (size_t)(2 * l[0] + 1), d2 = (size_t)(2 * l[1] + 1), d3 = (size_t)(2 * l[2] + 1);
    double scale = sqrt((double)d3);
    memset(to, 0, (size_t)rows * size * d2 * sizeof *to);
    for (size_t m = 0; C && m < d1; m++)
        for (size_t j = 0; j < d2; j++)
            for (size_t k = 0; k < (size_t)rows; k++) {
                double x = scale * C[(m * d2 + j) * d3 + k];
                for (size_t i = 0; x != 0 && i < size; i++)
                    to[(k * size + i) * d2 + j] += x * from[m * size + i];
            }
}

/* R_t[k][i..] of degrees l for k < rows, in the tuple's room */
static const double *eqnn__tree(const eqnn__tuple *t, const int *l, const int *mid, int rows)
{
    double *from = t->a, *to = t->b;
    size_t size = (size_t)(2 * l[0] + 1);
    memset(from, 0, size * size * sizeof *from);
    for (size_t k = 0; k < size; k++) from[k * size + k] = 1;
    for (int s = 1; s < t->n; s++) {
        int triple[3] = { mid[s - 1], l[s], mid[s] };
        eqnn__tree_step(t->r->ctx, triple, size, s == t->n - 1 ? rows : 2 * mid[s] + 1, from, to);
        size *= (size_t)(2 * l[s] + 1);
        double *swap = from;
        from = to;
        to = swap;
    }
    return from;
}

static double eqnn__dot(const double *a, const double *b, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}

/* Adds v [n] to the orthonormal rows of X if it is no combination of them; v is used up. */
static int eqnn__orthonormal_add(double *X, int rows, int n, double *v)
{
    size_t N = (size_t)n;
    for (int pass = 0; pass < 2; pass++) /* twice is enough (Giraud et al. 2005) */
        for (int u = 0; u < rows; u++) {
            double x = eqnn__dot(X + (size_t)u * N, v, N);
            for (size_t k = 0; k < N; k++) v[k] -= x * X[(size_t)u * N + k];
        }
    double size = sqrt(eqnn__dot(v, v, N));
    if (!(size > 1e-8)) return rows;
    for (size_t k = 0; k < N; k++) X[(size_t)rows * N + k] = v[k] / size;
    return rows + 1;
}

/* An orthonormal basis X of the range of a projector M [n][n], row by row; returns its rank. */
static int eqnn__projector_rows(double *M, int n, double *X)
{
    int rank = 0;
    for (int i = 0; i < n; i++) rank = eqnn__orthonormal_add(X, rank, n, M + (size_t)i * (size_t)n);
    return rank;
}

/* Does every coupling on the way end in one of the irreps that are allowed there? */
static int eqnn__tree_allowed(const eqnn_reduced *r, const int *T, const int *mid)
{
    int p = r->leaf[0][T[0]].p;
    for (int s = 1; s < r->symmetry.n; s++) {
        p *= r->leaf[s][T[s]].p;
        if (!eqnn_irreps_has(r->mid, mid[s], p)) return 0;
    }
    return 1;
}

/* Conditions that one tuple of a family, s T, puts on combinations u of its rows B: no part along
   a forbidden tree R of s T, sum over u of <R, s B_u> u = 0. Made orthonormal, added to E. */
static int eqnn__family_conditions(const eqnn__tuple *t, const eqnn__family *f,
                                   const eqnn__exchange *e, const double *B, double *E, int count)
{
    const eqnn_reduced *r = t->r;
    size_t rank = (size_t)f->rank;
    int l[EQNN__INDICES], T[EQNN__INDICES];
    double *v = (double *)eqnn__temp(r->ctx, rank, sizeof *v);
    double *moved = (double *)eqnn__temp(r->ctx, rank * t->size, sizeof *moved);
    eqnn__exchanged(e, t->n, t->T, T);
    eqnn__exchanged(e, t->n, t->l, l);
    int trees = eqnn__trees(t->n, l, f->l, NULL);
    int *mid = (int *)eqnn__temp(r->ctx, (size_t)trees * (size_t)t->n, sizeof *mid);
    if (!v || !moved || !mid) return -1;
    eqnn__trees(t->n, l, f->l, mid);
    for (size_t u = 0; u < rank; u++)
        eqnn__add_exchanged(t, e, 1, B + u * t->size, moved + u * t->size);
    for (int k = 0; k < trees && count < f->rank; k++) {
        if (eqnn__tree_allowed(r, T, mid + k * t->n)) continue;
        const double *R = eqnn__tree(t, l, mid + k * t->n, 1);
        for (size_t u = 0; u < rank; u++) v[u] = eqnn__dot(R, moved + u * t->size, t->size);
        count = eqnn__orthonormal_add(E, count, f->rank, v);
    }
    return count;
}

/* Keeps of a family what forbidden trees have no part in, on all its tuples. With the conditions
   as rows of E, the projector M in the space of trees becomes X^T (1 - E^T E) X. */
static int eqnn__family_filter(const eqnn__tuple *t, eqnn__family *f, const double *B, double *M)
{
    eqnn_ctx *c = t->r->ctx;
    size_t rank = (size_t)f->rank, trees = (size_t)f->trees;
    double *E = (double *)eqnn__temp(c, rank * rank, sizeof *E);
    double *EX = (double *)eqnn__temp(c, rank * trees, sizeof *EX);
    int count = 0;
    if (!E || !EX) return 0;
    for (int q = 0; q < t->cosets && count >= 0; q++)
        count = eqnn__family_conditions(t, f, &t->r->symmetry.element[t->coset[q]], B, E, count);
    if (count < 0) return 0;
    memset(M, 0, trees * trees * sizeof *M);
    for (size_t k = 0; k < (size_t)count; k++)
        for (size_t u = 0; u < rank; u++)
            for (size_t i = 0; i < trees; i++)
                EX[k * trees + i] += E[k * rank + u] * f->X[u * trees + i];
    for (size_t i = 0; i < trees; i++)
        for (size_t j = 0; j < trees; j++) {
            double *m = &M[i * trees + j];
            for (size_t u = 0; u < rank; u++) *m += f->X[u * trees + i] * f->X[u * trees + j];
            for (size_t k = 0; k < (size_t)count; k++) *m -= EX[k * trees + i] * EX[k * trees + j];
        }
    f->rank = eqnn__projector_rows(M, f->trees, f->X);
    return 1;
}

/* B[u] = sum over t of X[u][t] R_t[0]; the sign of u is such that the first number is positive. */
static void eqnn__family_rows(eqnn__family *f, const double *R, size_t size, double *B)
{
    size_t trees = (size_t)f->trees;
    memset(B, 0, (size_t)f->rank * size * sizeof *B);
    for (size_t u = 0; u < (size_t)f->rank; u++) {
        double *b = B + u * size, *x = f->X + u * trees;
        size_t first = 0;
        for (size_t k = 0; k < trees; k++)
            for (size_t i = 0; i < size; i++) b[i] += x[k] * R[k * size + i];
        while (first + 1 < size && fabs(b[first]) < 1e-9) first++;
        if (b[first] >= 0) continue;
        for (size_t k = 0; k < trees; k++) x[k] = -x[k];
        for (size_t i = 0; i < size; i++) b[i] = -b[i];
    }
}

/* M, X and the family that they give of the irrep (L, p) on a tuple; f->rank 0: none. */
static int eqnn__family_find(const eqnn__tuple *t, eqnn__family *f)
{
    eqnn_ctx *c = t->r->ctx;
    size_t trees = (size_t)f->trees, size = t->size;
    double *R = (double *)eqnn__temp(c, trees * size, sizeof *R);
    double *P = (double *)eqnn__temp(c, size, sizeof *P);
    double *B = (double *)eqnn__temp(c, trees * size, sizeof *B);
    double *M = (double *)eqnn__temp(c, trees * trees, sizeof *M);
    if (!R || !P || !B || !M) return 0;
    for (int k = 0; k < f->trees; k++)
        memcpy(R + (size_t)k * size, eqnn__tree(t, t->l, f->mid + k * t->n, 1), size * sizeof *R);
    for (size_t k = 0; k < trees; k++) {
        memset(P, 0, size * sizeof *P);
        for (int s = 0; s < t->stabilisers; s++) {
            const eqnn__exchange *e = &t->r->symmetry.element[t->stabiliser[s]];
            eqnn__add_exchanged(t, e, (double)e->sign / t->stabilisers, R + k * size, P);
        }
        for (size_t i = 0; i < trees; i++) M[k * trees + i] = eqnn__dot(R + i * size, P, size);
    }
    f->rank = eqnn__projector_rows(M, f->trees, f->X);
    eqnn__family_rows(f, R, size, B);
    if (!t->r->mid || !f->rank) return !c->failed;
    if (!eqnn__family_filter(t, f, B, M)) return 0;
    eqnn__family_rows(f, R, size, B);
    return !c->failed;
}

/* Behind all families of irreps that do not come later. */
static void eqnn__family_insert(eqnn_reduced *r, eqnn__family *f)
{
    eqnn__family **at = &r->family;
    while (*at && ((*at)->l < f->l || ((*at)->l == f->l && (*at)->p <= f->p))) at = &(*at)->next;
    f->next = *at;
    *at = f;
}

/* A family that was found becomes the basis's own. */
static int eqnn__family_keep(eqnn_reduced *r, const eqnn__family *found, int n)
{
    size_t mids = (size_t)found->trees * (size_t)n * sizeof(int);
    size_t rows = (size_t)found->rank * (size_t)found->trees * sizeof(double);
    eqnn__family *f = (eqnn__family *)eqnn__keep_alloc(r->ctx, sizeof *f);
    if (!f) return 0;
    *f = *found;
    f->mid = (int *)eqnn__keep_alloc(r->ctx, mids);
    f->X = (double *)eqnn__keep_alloc(r->ctx, rows);
    if (!f->mid || !f->X) return 0;
    memcpy(f->mid, found->mid, mids);
    memcpy(f->X, found->X, rows);
    eqnn__family_insert(r, f);
    return 1;
}

/* The families of one tuple, for all irreps that are wanted. */
static int eqnn__tuple_families(eqnn_reduced *r, eqnn__tuple *t)
{
    int top = 0;
    for (int s = 0; s < t->n; s++) top += t->l[s];
    for (int L = 0; L <= top; L++) {
        eqnn__family f;
        memset(&f, 0, sizeof f);
        f.trees = eqnn__trees(t->n, t->l, L, NULL);
        if (!f.trees || (r->wish && !eqnn_irreps_has(r->wish, L, t->p))) continue;
        eqnn_mark before = eqnn_mark_make(r->ctx);
        size_t n = (size_t)f.trees;
        f.mid = (int *)eqnn__temp(r->ctx, n * (size_t)t->n, sizeof(int));
        f.X = (double *)eqnn__temp(r->ctx, n * n, sizeof *f.X);
        if (!f.mid || !f.X) return 0;
        f.l = L;
        f.p = t->p;
        f.cosets = t->cosets;
        memcpy(f.tuple, t->T, sizeof f.tuple);
        eqnn__trees(t->n, t->l, L, f.mid);
        if (!eqnn__family_find(t, &f) || (f.rank && !eqnn__family_keep(r, &f, t->n))) return 0;
        eqnn_rewind(before, NULL);
    }
    return 1;
}

/* Room for the largest tuple of r. */
static int eqnn__tuple_start(eqnn__tuple *t, const eqnn_reduced *r)
{
    size_t size = 1, top = 1;
    memset(t, 0, sizeof *t);
    t->r = r;
    t->n = r->symmetry.n;
    for (int s = 0; s < t->n; s++) {
        int l = eqnn_irreps_lmax(r->in[s]);
        size *= (size_t)(2 * (l < 0 ? 0 : l) + 1);
        top += 2 * (size_t)(l < 0 ? 0 : l);
    }
    t->stabiliser = (int *)eqnn__temp(r->ctx, (size_t)r->symmetry.count, sizeof(int));
    t->coset = (int *)eqnn__temp(r->ctx, (size_t)r->symmetry.count, sizeof(int));
    t->a = (double *)eqnn__temp(r->ctx, size * top, sizeof(double));
    t->b = (double *)eqnn__temp(r->ctx, size * top, sizeof(double));
    return t->stabiliser && t->coset && t->a && t->b;
}

/* The copies of all blocks of an index. */
static int eqnn__index_leaves(eqnn_reduced *r, int s)
{
    const eqnn_irreps *in = r->in[s];
    eqnn__leaf *leaf = (eqnn__leaf *)eqnn__keep_alloc(r->ctx, ((size_t)in->copies + 1) *
                                                                  sizeof *leaf);
    r->leaf[s] = leaf;
    for (int b = 0; leaf && b < in->blocks; b++)
        for (int u = 0; u < in->block[b].copies; u++) {
            eqnn__leaf *a = &leaf[r->leaves[s]++];
            a->l = in->block[b].type->l;
            a->p = in->block[b].type->p;
            a->start = in->block[b].start + u;
            a->stride = in->block[b].copies;
        }
    return leaf != NULL;
}

/* Numbers the copies of each irrep and makes the label of the output. */
static int eqnn__reduced_label(eqnn_reduced *r)
{
    int n = 0;
    for (eqnn__family *f = r->family; f; f = f->next) n++;
    int(*block)[3] = (int(*)[3])eqnn__temp(r->ctx, (size_t)n, sizeof *block);
    if (!block) return 0;
    n = 0;
    for (eqnn__family *f = r->family; f; f = f->next) {
        if (!n || block[n - 1][1] != f->l || block[n - 1][2] != f->p) {
            block[n][1] = f->l;
            block[n++][2] = f->p;
        }
        f->copy = block[n - 1][0];
        block[n - 1][0] += f->rank;
    }
    r->out = eqnn_irreps_blocks(r->ctx, (const int(*)[3])block, n);
    return r->out != NULL;
}

/* All tuples, those that stand for themselves. */
static int eqnn__reduced_fill(eqnn_reduced *r)
{
    eqnn__tuple t;
    int n = r->symmetry.n, s = 0;
    for (s = 0; s < n; s++)
        if (!eqnn__index_leaves(r, s)) return 0;
    if (!eqnn__tuple_start(&t, r)) return 0;
    for (s = 0; s < n; s++)
        if (r->leaves[s] == 0) r->symmetry.none = 1;
    while (!r->symmetry.none) {
        if (eqnn__tuple_fill(&t) && !eqnn__tuple_families(r, &t)) return 0;
        for (s = n - 1; s >= 0; s--) {
            if (++t.T[s] < r->leaves[s]) break;
            t.T[s] = 0;
        }
        if (s < 0) break;
    }
    return eqnn__reduced_label(r);
}

/* More numbers than this in a row of Q are refused. */
#define EQNN__REDUCED_MOST 16777216.0

static eqnn_reduced *eqnn__reduced_new(eqnn_ctx *c, const char *formula, const eqnn__symmetry *g,
                                       const eqnn_irreps *const *in, const eqnn_reduced_opts *o)
{
    double numbers = 1;
    for (int s = 0; s < g->n; s++) numbers *= in[s]->cols;
    if (numbers > EQNN__REDUCED_MOST)
        return (eqnn_reduced *)eqnn__fail(c, "reduced \"%.60s\": tensors of %.0f numbers; this is "
                                             "made for at most %.0f", formula, numbers,
                                          EQNN__REDUCED_MOST);
    size_t bytes = (size_t)g->count * sizeof *g->element;
    eqnn_reduced *r = (eqnn_reduced *)eqnn__keep_alloc(c, sizeof *r);
    eqnn__exchange *element = (eqnn__exchange *)eqnn__keep_alloc(c, bytes);
    if (!r || !element || !(r->formula = eqnn__keep_string(c, formula))) return NULL;
    memcpy(element, g->element, bytes);
    memcpy(r->in, in, sizeof r->in);
    r->ctx = c;
    r->symmetry = *g;
    r->symmetry.element = element;
    r->wish = o->out;
    r->mid = o->mid;
    return eqnn__reduced_fill(r) ? r : NULL;
}

EQNN_API const eqnn_reduced *eqnn_reduced_make(eqnn_ctx *c, const char *formula, const char *irreps,
                                               const eqnn_reduced_opts *opts)
{
    const eqnn_irreps *in[EQNN__INDICES] = { NULL };
    eqnn_reduced_opts o = { NULL, NULL };
    eqnn__symmetry g;
    if (!c || c->failed) return NULL;
    if (opts) o = *opts;
    if (!formula || !irreps)
        return (eqnn_reduced *)eqnn__fail(c, "reduced: the %s missing (NULL)",
                                          formula ? "irreps are" : "formula is");
    struct eqnn__tables *t = eqnn__tables_of(c);
    eqnn_mark before = eqnn_mark_make(c);
    if (!t || !eqnn__symmetry_make(c, formula, &g)) return NULL;
    if (!eqnn__indices_irreps(c, formula, &g, irreps, in)) return NULL;
    eqnn_reduced *r = t->reduced;
    while (r && (strcmp(r->formula, formula) || memcmp(r->in, in, sizeof in) || r->wish != o.out ||
                 r->mid != o.mid))
        r = r->next;
    if (!r && (r = eqnn__reduced_new(c, formula, &g, in, &o)) != NULL) {
        r->next = t->reduced;
        t->reduced = r;
    }
    if (r) eqnn_rewind(before, NULL);
    return r;
}

EQNN_API int eqnn_reduced_indices(const eqnn_reduced *r) { return r ? r->symmetry.n : 0; }
EQNN_API const eqnn_irreps *eqnn_reduced_out(const eqnn_reduced *r) { return r ? r->out : NULL; }

EQNN_API const eqnn_irreps *eqnn_reduced_in(const eqnn_reduced *r, int index)
{
    return r && index >= 0 && index < r->symmetry.n ? r->in[index] : NULL;
}

/* --- reduced tensor products: computing them --- */

/* Q_u of one family: the numbers of B [2L+1][size] at the places of all cosets. record NULL: they
   are only counted. */
static int64_t eqnn__family_spread(const eqnn__tuple *t, const eqnn__family *f, const double *B,
                                   int column, int stride, eqnn__poly_record *record)
{
    const eqnn_reduced *r = t->r;
    int64_t n = 0;
    for (size_t i = 0; i < t->size; i++)
        for (int k = 0; k <= 2 * f->l; k++) {
            double value = B[(size_t)k * t->size + i] / sqrt((double)t->cosets);
            if (fabs(value) < 1e-14) continue;
            for (int q = 0; q < t->cosets && record; q++) {
                const eqnn__exchange *e = &r->symmetry.element[t->coset[q]];
                eqnn__poly_record *a = &record[n + q];
                size_t rest = i;
                a->c = e->sign * value;
                a->col[t->n] = column + k * stride;
                for (int s = t->n - 1; s >= 0; s--) {
                    size_t d = (size_t)(2 * t->l[s] + 1);
                    const eqnn__leaf *leaf = &r->leaf[(int)e->at[s]][t->T[s]];
                    a->col[(int)e->at[s]] = leaf->start + (int)(rest % d) * leaf->stride;
                    rest /= d;
                }
            }
            n += t->cosets;
        }
    return n;
}

static int64_t eqnn__family_records(eqnn__tuple *t, const eqnn__family *f,
                                    eqnn__poly_record *record)
{
    const eqnn_reduced *r = t->r;
    int64_t n = 0;
    int b = 0;
    memcpy(t->T, f->tuple, sizeof t->T);
    eqnn__tuple_fill(t);
    while (r->out->block[b].type->l != f->l || r->out->block[b].type->p != f->p) b++;
    const eqnn_block *block = &r->out->block[b];
    size_t count = (size_t)(2 * f->l + 1) * t->size;
    double *B = (double *)eqnn__temp(r->ctx, count, sizeof *B);
    for (int u = 0; B && u < f->rank; u++) {
        memset(B, 0, count * sizeof *B);
        for (int k = 0; k < f->trees; k++) {
            double x = f->X[u * f->trees + k];
            if (fabs(x) < 1e-14) continue;
            const double *R = eqnn__tree(t, t->l, f->mid + k * t->n, 2 * f->l + 1);
            for (size_t i = 0; i < count; i++) B[i] += x * R[i];
        }
        n += eqnn__family_spread(t, f, B, block->start + f->copy + u, block->copies,
                                 record ? record + n : NULL);
    }
    return n;
}

/* Q as records x_i, x_j, .., z: counted, then written. */
static int eqnn__reduced_records(const eqnn_reduced *r)
{
    eqnn_reduced *own = (eqnn_reduced *)r;
    eqnn_ctx *c = r->ctx;
    eqnn__tuple t;
    if (r->record) return 1;
    eqnn_mark before = eqnn_mark_make(c);
    for (int pass = 0; pass < 2; pass++) {
        int64_t n = 0;
        if (!eqnn__tuple_start(&t, r)) return 0;
        if (pass && !(own->record = (eqnn__poly_record *)eqnn__keep_alloc(
                          c, ((size_t)r->records + 1) * sizeof *own->record)))
            return 0;
        for (const eqnn__family *f = r->family; f && !c->failed; f = f->next)
            n += eqnn__family_records(&t, f, pass ? own->record + n : NULL);
        own->records = n;
        if (n > INT_MAX / 2) eqnn__fail(c, "reduced \"%.60s\": too many terms", r->formula);
        if (c->failed) own->record = NULL;
        if (c->failed) return 0;
    }
    eqnn_rewind(before, NULL);
    return 1;
}

/* Which number of T [i][j].. a record multiplies. */
static size_t eqnn__reduced_flat(const eqnn_reduced *r, const eqnn__poly_record *a)
{
    size_t at = 0;
    for (int s = 0; s < r->symmetry.n; s++)
        at = at * (size_t)r->in[s]->cols + (size_t)a->col[s];
    return at;
}

EQNN_API int eqnn_reduced_basis(const eqnn_reduced *r, double *Q)
{
    size_t size = 1;
    if (!r || !Q || r->ctx->failed || !eqnn__reduced_records(r)) return 0;
    for (int s = 0; s < r->symmetry.n; s++) size *= (size_t)r->in[s]->cols;
    memset(Q, 0, size * (size_t)r->out->cols * sizeof *Q);
    for (int64_t k = 0; k < r->records; k++) {
        const eqnn__poly_record *a = &r->record[k];
        Q[(size_t)a->col[r->symmetry.n] * size + eqnn__reduced_flat(r, a)] += a->c;
    }
    return 1;
}

/* The factors of a product: their number, labels and rows; the rows of the result, or -1. */
static int eqnn__reduced_factors(eqnn_tensor *const *x, const eqnn_reduced *r, eqnn_tensor **v)
{
    eqnn_ctx *c = r->ctx;
    for (int s = 0; s < r->symmetry.n; s++) {
        if (!x || eqnn__bad2(x[0], x[s], "reduced_product")) return -1;
        if (x[s]->ctx != c) {
            eqnn__fail(x[s]->ctx, "reduced_product%s: the product belongs to another context",
                       eqnn__place(x[s]->ctx));
            return -1;
        }
        v[s] = eqnn__recut(x[s], r->in[s]);
        if (!v[s]) return -1;
        if (!eqnn__has_columns(v[s], r->in[s])) {
            eqnn__fail(c, "reduced_product%s: factor %c of %.60s is %s [%d,%d], it wants %s",
                       eqnn__place(c), r->symmetry.letter[s], r->formula,
                       eqnn__label_text(v[s]->label), v[s]->rows, v[s]->cols, r->in[s]->name);
            return -1;
        }
    }
    int rows = eqnn__stretch_rows(v, r->symmetry.n);
    if (rows < 0)
        eqnn__fail(c, "reduced_product%s: the factors of %.60s have different numbers of rows",
                   eqnn__place(c), r->formula);
    return rows;
}

EQNN_API eqnn_tensor *eqnn_reduced_product(eqnn_tensor *const *x, const eqnn_reduced *r)
{
    eqnn_tensor *v[EQNN__SLOTS] = { NULL };
    eqnn__form f;
    if (!r || r->ctx->failed) return NULL;
    int n = r->symmetry.n, rows = eqnn__reduced_factors(x, r, v);
    if (rows < 0 || !eqnn__reduced_records(r)) return NULL;
    if (r->out->cols == 0) return eqnn__tag(eqnn_zeros(r->ctx, rows, 0), r->out);
    if (!r->plan)
        ((eqnn_reduced *)r)->plan = eqnn__poly_plan(r->ctx, n + 1, r->record, (int)r->records);
    eqnn__form_start(&f, EQNN__POLY, n + 1, rows, r->plan);
    for (int s = 0; s < n; s++)
        eqnn__slot(&f, s, eqnn__row_map(v[s]->rows, rows), v[s]->rows, v[s]->cols);
    eqnn__slot(&f, n, EQNN__EACH, rows, r->out->cols);
    return eqnn__tag(eqnn__form_value(r->ctx, &f, v, n), r->out);
}

/* The form of slots T, z; to: z from T, else T from z. */
static eqnn_tensor *eqnn__cartesian(eqnn_tensor *x, const eqnn_reduced *r, int numbers, int to)
{
    eqnn_tensor *v[EQNN__SLOTS] = { x, x };
    eqnn__form f;
    if (!r->flat) {
        eqnn__poly_record *a =
            (eqnn__poly_record *)eqnn__temp(r->ctx, (size_t)r->records, sizeof *a);
        for (int64_t k = 0; a && k < r->records; k++) {
            a[k].c = r->record[k].c;
            a[k].col[0] = (int)eqnn__reduced_flat(r, &r->record[k]);
            a[k].col[1] = r->record[k].col[r->symmetry.n];
        }
        ((eqnn_reduced *)r)->flat = a ? eqnn__poly_plan(r->ctx, 2, a, (int)r->records) : NULL;
    }
    eqnn__form_start(&f, EQNN__POLY, 2, x->rows, r->flat);
    eqnn__slot(&f, 0, EQNN__EACH, x->rows, numbers);
    eqnn__slot(&f, 1, EQNN__EACH, x->rows, r->out->cols);
    if (r->out->cols == 0) return eqnn_zeros(r->ctx, x->rows, to ? 0 : numbers);
    return eqnn__form_value(r->ctx, &f, v, to);
}

/* Vectors for every index; *numbers is 3^n. */
static const eqnn_reduced *eqnn__cartesian_basis(eqnn_ctx *c, const char *formula, int *numbers)
{
    const eqnn_reduced *r = eqnn_reduced_make(c, formula, "1o", NULL);
    if (!r || !eqnn__reduced_records(r)) return NULL;
    *numbers = 1;
    for (int s = 0; s < r->symmetry.n; s++) *numbers *= 3;
    return r;
}

EQNN_API eqnn_tensor *eqnn_from_cartesian(eqnn_tensor *x, const char *formula)
{
    int numbers;
    if (eqnn__bad(x, "from_cartesian")) return NULL;
    const eqnn_reduced *r = eqnn__cartesian_basis(x->ctx, formula, &numbers);
    if (!r) return NULL;
    if (x->cols != numbers || (x->label && !eqnn__invariant(x->label) && numbers > 3))
        return eqnn__fail(x->ctx, "from_cartesian%s: \"%.60s\" has %d numbers and no label, x is "
                                  "%s [%d,%d]", eqnn__place(x->ctx), formula, numbers,
                          eqnn__label_text(x->label), x->rows, x->cols);
    return eqnn__tag(eqnn__cartesian(eqnn__bare(x), r, numbers, 1), r->out);
}

EQNN_API eqnn_tensor *eqnn_to_cartesian(eqnn_tensor *x, const char *formula)
{
    int numbers;
    if (eqnn__bad(x, "to_cartesian")) return NULL;
    const eqnn_reduced *r = eqnn__cartesian_basis(x->ctx, formula, &numbers);
    if (!r) return NULL;
    if (!eqnn__has_columns(x, r->out))
        return eqnn__fail(x->ctx, "to_cartesian%s: \"%.60s\" is %s, x is %s [%d,%d]",
                          eqnn__place(x->ctx), formula, r->out->name, eqnn__label_text(x->label),
                          x->rows, x->cols);
    return eqnn__cartesian(eqnn__bare(x), r, numbers, 0);
}

/* --- symmetric contraction --- */

/* A basis row is symmetric, so on equal factors x .. x its value is that of its part on one tuple,
   a combination of trees, B = X Z with Z_t = R_t(x, .., x). The trees of a family outnumber its
   rows and so depend on each other: Z = X^T B. With as many of them, J, as there are rows,

       sum over p of w_p B_p = sum over j in J of w'_j Z_j          w' = X_J^-1 w

   so the weights are turned from rows to trees once a step, for each species and channel, not for
   each node. What is left is evaluated as trees: the products of the first nu - 1 factors, T, are
   shared by all trees, all outputs and the next order, and the last factor comes with the weights,

       T_1 = x      T_nu = C T_(nu-1) x      z_L += sum over j of w'_j C(l, l', L) T_(nu-1) x

   From 0e+1o+2e+3o to 0e+1o, three factors are 332 terms for a channel of a node, and four 1186.
   Written out in U there are 498 different terms for three, of up to four factors and a weight. */

/* A tree that is used: the product of all but the last factor, the last, and where it goes. */
typedef struct eqnn__branch { int prefix, leaf, l, out, weight; double scale; } eqnn__branch;

/* A product of some factors: that of one less, times a leaf, of degree l. */
typedef struct eqnn__prefix { int parent, leaf, l, order, column; } eqnn__prefix;

/* The products of nu factors. */
typedef struct eqnn__order {
    int cols, weights;            /* columns of T_nu; trees that end here                    */
    const void *couple, *finish;  /* T_(nu-1), x -> T_nu; T_(nu-1), w', x -> z (1: x, w -> z) */
    const void *turn;             /* w of all blocks of the output -> w' [channel][tree]     */
} eqnn__order;

struct eqnn__contraction {
    eqnn__contraction *next;
    const eqnn_irreps *in, *out, *leaf;      /* leaf: one copy of each block of in            */
    int correlation, channels, cols;         /* columns of z for one channel                  */
    eqnn_ints *gather, *scatter;             /* columns to [channel][component], and back     */
    eqnn__order *order;                      /* [correlation + 1]                             */
    const eqnn_reduced **basis;              /* [correlation + 1]                             */
};

/* Lists under construction. */
typedef struct eqnn__contraction_lists {
    eqnn__contraction *k;
    eqnn_ctx *ctx;
    eqnn__prefix *prefix;
    eqnn__branch *branch;                    /* of the order at work                          */
    eqnn__poly_record *turn;
    int prefixes, branches, turns;
} eqnn__contraction_lists;

/* First column of an output block among those of one channel. */
static int eqnn__contraction_column(const eqnn__contraction *k, int out)
{
    int column = 0;
    for (int b = 0; b < out; b++) column += k->out->block[b].type->dim;
    return column;
}

/* Paths of order nu into an output block. */
static int eqnn__contraction_paths(const eqnn__contraction *k, int nu, int out)
{
    const eqnn_type *t = k->out->block[out].type;
    return eqnn_irreps_count(k->basis[nu]->out, t->l, t->p);
}

/* The first n factors of a tree, found or made. */
static int eqnn__prefix_find(eqnn__contraction_lists *a, const int *tuple, const int *mid, int n)
{
    int parent = n > 1 ? eqnn__prefix_find(a, tuple, mid, n - 1) : -1;
    for (int i = 0; i < a->prefixes; i++) {
        const eqnn__prefix *p = &a->prefix[i];
        if (p->order == n && p->parent == parent && p->leaf == tuple[n - 1] && p->l == mid[n - 1])
            return i;
    }
    eqnn__prefix *p = &a->prefix[a->prefixes];
    p->parent = parent;
    p->leaf = tuple[n - 1];
    p->l = mid[n - 1];
    p->order = n;
    p->column = n > 1 ? a->k->order[n].cols : a->k->leaf->block[tuple[0]].start;
    a->k->order[n].cols += 2 * p->l + 1;
    return a->prefixes++;
}

/* Gauss and Jordan: Y [n][m] = [X | 1] becomes [E X | E], where n columns of E X, pivot[0..n-1],
   are those of the identity. The largest number left is the next pivot. */
static void eqnn__reduce_rows(double *Y, int n, int m, int trees, int *pivot)
{
    for (int i = 0; i < n; i++) pivot[i] = -1;
    for (int step = 0; step < n; step++) {
        int row = -1, column = -1;
        double most = 0;
        for (int i = 0; i < n; i++)
            for (int j = 0; j < trees && pivot[i] < 0; j++)
                if (fabs(Y[i * m + j]) > most + 1e-9) {
                    most = fabs(Y[i * m + j]);
                    row = i;
                    column = j;
                }
        if (row < 0) return;
        pivot[row] = column;
        for (int j = 0, first = 1; j < m; j++, first = 0) {
            if (first) most = 1 / Y[row * m + column];
            Y[row * m + j] *= most;
        }
        for (int i = 0; i < n; i++) {
            double x = Y[i * m + column];
            for (int j = 0; i != row && j < m; j++) Y[i * m + j] -= x * Y[row * m + j];
        }
    }
}

/* The trees of one family, and how the weights of its rows become theirs. */
static int eqnn__contraction_family(eqnn__contraction_lists *a, const eqnn__family *f, int nu,
                                    int out, int paths_before)
{
    int n = f->rank, m = f->trees + n, C = a->k->channels;
    double *Y = (double *)eqnn__temp(a->ctx, (size_t)n * (size_t)m, sizeof *Y);
    int *pivot = (int *)eqnn__temp(a->ctx, (size_t)n, sizeof *pivot);
    if (!Y || !pivot) return 0;
    for (int u = 0; u < n; u++) {
        for (int t = 0; t < f->trees; t++) Y[u * m + t] = f->X[u * f->trees + t];
        Y[u * m + f->trees + u] = 1;
    }
    eqnn__reduce_rows(Y, n, m, f->trees, pivot);
    for (int j = 0; j < n; j++) {
        const int *mid = f->mid + (pivot[j] < 0 ? 0 : pivot[j]) * nu;
        eqnn__branch *b = &a->branch[a->branches++];
        b->prefix = nu > 1 ? eqnn__prefix_find(a, f->tuple, mid, nu - 1) : -1;
        b->leaf = f->tuple[nu - 1];
        b->l = f->l;
        b->out = eqnn__contraction_column(a->k, out);
        b->weight = a->k->order[nu].weights++;
        b->scale = sqrt((double)f->cosets);
        for (int p = 0; p < n; p++)
            for (int u = 0; u < C && fabs(Y[j * m + f->trees + p]) > 1e-14; u++) {
                eqnn__poly_record *r = &a->turn[a->turns++];
                r->c = Y[j * m + f->trees + p];
                r->col[0] = (paths_before + f->copy + p) * C + u;
                r->col[1] = b->weight; /* + u * all of them, when their number is known */
                r->col[2] = u;
            }
    }
    return 1;
}

/* T_nu += C T_(nu-1) x for one prefix. Of the products of a leaf with itself each is taken once. */
static int eqnn__prefix_records(const eqnn__contraction_lists *a, const eqnn__prefix *p,
                                eqnn__poly_record *record)
{
    const eqnn__prefix *q = &a->prefix[p->parent];
    int n = 0, d1 = 2 * q->l + 1, d2 = a->k->leaf->block[p->leaf].type->dim, d3 = 2 * p->l + 1;
    int square = p->order == 2 && q->leaf == p->leaf;
    const double *C = eqnn__w3j(a->ctx, q->l, (d2 - 1) / 2, p->l);
    for (int i = 0; C && i < d1; i++)
        for (int j = square ? i : 0; j < d2; j++)
            for (int k = 0; k < d3; k++) {
                double value = C[(i * d2 + j) * d3 + k];
                if (square && i != j) value += C[(j * d2 + i) * d3 + k];
                if (fabs(value) < 1e-14) continue;
                record[n].c = sqrt((double)d3) * value;
                record[n].col[0] = q->column + i;
                record[n].col[1] = a->k->leaf->block[p->leaf].start + j;
                record[n++].col[2] = p->column + k;
            }
    return n;
}

/* z += w' C T_(nu-1) x for one tree */
static int eqnn__branch_records(const eqnn__contraction_lists *a, const eqnn__branch *b,
                                eqnn__poly_record *record)
{
    const eqnn_block *leaf = &a->k->leaf->block[b->leaf];
    const eqnn__prefix *q = b->prefix < 0 ? NULL : &a->prefix[b->prefix];
    int n = 0, d1 = q ? 2 * q->l + 1 : 1, d2 = leaf->type->dim, d3 = 2 * b->l + 1;
    int square = q && q->order == 1 && q->leaf == b->leaf;
    const double *C = eqnn__w3j(a->ctx, q ? q->l : 0, leaf->type->l, b->l);
    for (int i = 0; C && i < d1; i++)
        for (int j = square ? i : 0; j < d2; j++)
            for (int k = 0; k < d3; k++) {
                double value = C[(i * d2 + j) * d3 + k];
                if (square && i != j) value += C[(j * d2 + i) * d3 + k];
                if (fabs(value) < 1e-14) continue;
                record[n].c = b->scale * sqrt((double)d3) * value;
                record[n].col[0] = leaf->start + j;
                record[n].col[1] = b->weight;
                if (q) record[n].col[2] = q->column + i;
                record[n++].col[q ? 3 : 2] = b->out + k;
            }
    return n;
}

/* Room for the trees, prefixes and turns of all orders. */
static int eqnn__contraction_room(eqnn__contraction_lists *a)
{
    const eqnn__contraction *k = a->k;
    size_t trees = 0, squares = 0;
    for (int nu = 1; nu <= k->correlation; nu++) {
        for (const eqnn__family *f = k->basis[nu]->family; f; f = f->next) {
            trees += (size_t)f->rank * (size_t)nu;
            squares += (size_t)f->rank * (size_t)f->rank;
        }
    }
    trees *= (size_t)k->out->blocks;
    squares *= (size_t)k->out->blocks * (size_t)k->channels;
    a->prefix = (eqnn__prefix *)eqnn__temp(a->ctx, trees, sizeof *a->prefix);
    a->branch = (eqnn__branch *)eqnn__temp(a->ctx, trees, sizeof *a->branch);
    a->turn = (eqnn__poly_record *)eqnn__temp(a->ctx, squares, sizeof *a->turn);
    return a->prefix && a->branch && a->turn;
}

/* Trees and plans of the products of nu factors. */
static int eqnn__contraction_order(eqnn__contraction_lists *a, int nu)
{
    const eqnn__contraction *k = a->k;
    eqnn__order *o = &k->order[nu];
    int before = 0;
    size_t room = 0;
    a->branches = a->turns = 0;
    for (int b = 0; b < k->out->blocks; b++) {
        const eqnn_type *t = k->out->block[b].type;
        for (const eqnn__family *f = k->basis[nu]->family; f; f = f->next)
            if (f->l == t->l && f->p == t->p && !eqnn__contraction_family(a, f, nu, b, before))
                return 0;
        before += eqnn__contraction_paths(k, nu, b);
    }
    for (int i = 0; i < a->turns; i++) a->turn[i].col[1] += a->turn[i].col[2] * o->weights;
    for (int i = 0; i < a->branches; i++) {
        const eqnn__branch *b = &a->branch[i];
        int l = b->prefix < 0 ? 0 : a->prefix[b->prefix].l;
        room += (size_t)(2 * l + 1) * (size_t)k->leaf->block[b->leaf].type->dim *
                (size_t)(2 * b->l + 1);
    }
    eqnn__poly_record *record = (eqnn__poly_record *)eqnn__temp(a->ctx, room, sizeof *record);
    int n = 0;
    for (int i = 0; record && i < a->branches; i++)
        n += eqnn__branch_records(a, &a->branch[i], record + n);
    if (!record || a->ctx->failed) return 0;
    o->turn = eqnn__poly_plan(a->ctx, 2, a->turn, a->turns);
    o->finish = eqnn__poly_plan(a->ctx, nu > 1 ? 4 : 3, record, n);
    return o->turn && o->finish;
}

/* T_nu, from what all higher orders want of it */
static int eqnn__contraction_couple(eqnn__contraction_lists *a, int nu)
{
    size_t room = 0;
    int n = 0;
    for (int i = 0; i < a->prefixes; i++) {
        const eqnn__prefix *p = &a->prefix[i];
        if (p->order == nu)
            room += (size_t)(2 * p->l + 1) * (size_t)a->k->leaf->block[p->leaf].type->dim *
                    (size_t)(2 * a->prefix[p->parent].l + 1);
    }
    eqnn__poly_record *record = (eqnn__poly_record *)eqnn__temp(a->ctx, room, sizeof *record);
    for (int i = 0; record && i < a->prefixes; i++)
        if (a->prefix[i].order == nu)
            n += eqnn__prefix_records(a, &a->prefix[i], record + n);
    if (!record || a->ctx->failed) return 0;
    a->k->order[nu].couple = eqnn__poly_plan(a->ctx, 3, record, n);
    return a->k->order[nu].couple != NULL;
}

/* From component-major blocks to channel-major rows: where a channel's numbers stand. */
static eqnn_ints *eqnn__contraction_columns(eqnn_ctx *c, const eqnn_irreps *label, int channels,
                                            int back)
{
    int cols = channels > 0 ? label->cols / channels : 0, component = 0;
    int *at = (int *)eqnn__temp(c, (size_t)label->cols, sizeof *at);
    for (int b = 0; at && b < label->blocks; b++)
        for (int m = 0; m < label->block[b].type->dim; m++, component++)
            for (int u = 0; u < channels; u++) {
                int ours = label->block[b].start + m * channels + u, theirs = u * cols + component;
                if (back) at[ours] = theirs;
                else at[theirs] = ours;
            }
    return at ? eqnn_ints_make(c, label->cols, at, label->cols, 1) : NULL;
}

/* The fully symmetric product of nu equal indices: "abc=bac=acb". */
static const eqnn_reduced *eqnn__symmetric_power(eqnn_ctx *c, const eqnn_irreps *in,
                                                 const eqnn_irreps *out, int nu)
{
    char text[EQNN__INDICES * (EQNN__INDICES + 1) + 1];
    int at = 0;
    for (int term = 0; term < nu; term++) {
        if (term) text[at++] = '=';
        for (int s = 0; s < nu; s++) {
            int letter = !term ? s : s == term - 1 ? s + 1 : s == term ? s - 1 : s;
            text[at++] = (char)('a' + letter);
        }
    }
    text[at] = 0;
    eqnn_reduced_opts o = { out, NULL };
    return eqnn_reduced_make(c, text, in->name, &o);
}

static int eqnn__contraction_fill(eqnn_ctx *c, eqnn__contraction *k)
{
    int(*one)[3] = (int(*)[3])eqnn__temp(c, (size_t)k->in->blocks, sizeof *one);
    eqnn__contraction_lists a;
    size_t orders = (size_t)k->correlation + 1;
    memset(&a, 0, sizeof a);
    a.k = k;
    a.ctx = c;
    for (int b = 0; one && b < k->in->blocks; b++) {
        one[b][0] = 1;
        one[b][1] = k->in->block[b].type->l;
        one[b][2] = k->in->block[b].type->p;
    }
    k->leaf = one ? eqnn_irreps_blocks(c, (const int(*)[3])one, k->in->blocks) : NULL;
    k->cols = eqnn__contraction_column(k, k->out->blocks);
    k->gather = k->leaf ? eqnn__contraction_columns(c, k->in, k->channels, 0) : NULL;
    k->scatter = k->gather ? eqnn__contraction_columns(c, k->out, k->channels, 1) : NULL;
    k->order = (eqnn__order *)eqnn__keep_alloc(c, orders * sizeof *k->order);
    k->basis = (const eqnn_reduced **)eqnn__keep_alloc(c, orders * sizeof *k->basis);
    if (!k->scatter || !k->order || !k->basis) return 0;
    for (int nu = 1; nu <= k->correlation; nu++)
        if (!(k->basis[nu] = eqnn__symmetric_power(c, k->leaf, k->out, nu))) return 0;
    if (!eqnn__contraction_room(&a)) return 0;
    for (int nu = 1; nu <= k->correlation; nu++)
        if (!eqnn__contraction_order(&a, nu)) return 0;
    for (int nu = 2; nu < k->correlation; nu++)
        if (!eqnn__contraction_couple(&a, nu)) return 0;
    return 1;
}

/* Every block has the same number of copies, the channels. */
static int eqnn__contraction_fits(eqnn_ctx *c, const eqnn__contraction *k)
{
    const eqnn_irreps *label[2];
    label[0] = k->in;
    label[1] = k->out;
    if (k->correlation < 1 || k->correlation > EQNN__INDICES) {
        eqnn__fail(c, "symmetric_contraction%s: correlation %d; it is 1 to %d", eqnn__place(c),
                   k->correlation, EQNN__INDICES);
        return 0;
    }
    for (int i = 0; i < 2; i++)
        for (int b = 0; b < label[i]->blocks; b++) {
            if (label[i]->block[b].copies == k->channels && k->channels > 0) continue;
            eqnn__fail(c, "symmetric_contraction%s: %.60s -> %.60s: every block has the same "
                          "number of copies, the channels, at least one", eqnn__place(c),
                       k->in->name, k->out->name);
            return 0;
        }
    return 1;
}

static const eqnn__contraction *eqnn__contraction_find(eqnn_ctx *c, const eqnn_irreps *in,
                                                       const eqnn_irreps *out, int correlation)
{
    struct eqnn__tables *t = eqnn__tables_of(c);
    eqnn__contraction *k = t ? t->contractions : NULL;
    while (k && (k->in != in || k->out != out || k->correlation != correlation)) k = k->next;
    if (k || !t) return k;
    k = (eqnn__contraction *)eqnn__keep_alloc(c, sizeof *k);
    if (!k) return NULL;
    k->in = in;
    k->out = out;
    k->correlation = correlation;
    k->channels = in->blocks ? in->block[0].copies : 0;
    eqnn_mark before = eqnn_mark_make(c);
    if (!eqnn__contraction_fits(c, k) || !eqnn__contraction_fill(c, k)) return NULL;
    eqnn_rewind(before, NULL);
    k->next = t->contractions;
    return t->contractions = k;
}

/* A form on rows that are channels of nodes, or species. */
static eqnn_tensor *eqnn__contraction_form(const void *plan, int rows, eqnn_tensor *const *x, int n,
                                           int cols)
{
    eqnn_tensor *v[EQNN__SLOTS] = { NULL };
    eqnn__form f;
    eqnn__form_start(&f, EQNN__POLY, n + 1, rows, plan);
    for (int s = 0; s < n; s++) {
        if (!x[s]) return NULL;
        v[s] = x[s];
        eqnn__slot(&f, s, EQNN__EACH, rows, x[s]->cols);
    }
    eqnn__slot(&f, n, EQNN__EACH, rows, cols);
    return eqnn__form_value(x[0]->ctx, &f, v, n);
}

/* The weights of one order, of all blocks side by side: [species, paths x channels] */
static eqnn_tensor *eqnn__contraction_params(eqnn_ctx *c, const eqnn__contraction *k, int nu,
                                             int species)
{
    size_t blocks = (size_t)k->out->blocks;
    eqnn_tensor **w = (eqnn_tensor **)eqnn__temp(c, blocks, sizeof *w);
    int n = 0;
    for (int b = 0; w && b < k->out->blocks; b++) {
        int paths = eqnn__contraction_paths(k, nu, b);
        eqnn_init init;
        if (!paths) continue;
        memset(&init, 0, sizeof init);
        init.scale = 1.0 / paths;
        const char *name =
            nu == k->correlation
                ? eqnn_format(c, "contractions.%d.weights_max", b)
                : eqnn_format(c, "contractions.%d.weights.%d", b, k->correlation - 1 - nu);
        if (!(w[n++] = eqnn_param(c, name, species, paths * k->channels, &init))) return NULL;
    }
    return !w ? NULL : n == 1 ? w[0] : eqnn_concat_n(w, n);
}

/* w' of every channel of every row of x: [rows x channels, trees] */
static eqnn_tensor *eqnn__contraction_weights(eqnn_ctx *c, const eqnn__contraction *k, int nu,
                                              int rows, eqnn_ints *species)
{
    int trees = k->order[nu].weights, kinds = species ? species->range : 1;
    eqnn_tensor *w = eqnn__contraction_params(c, k, nu, kinds);
    if (!w) return NULL;
    w = eqnn__contraction_form(k->order[nu].turn, kinds, &w, 1, trees * k->channels);
    w = species ? eqnn_take(w, species) : eqnn_stretch(w, rows, trees * k->channels);
    return eqnn_reshape(w, rows * k->channels, trees);
}

/* The sum over all orders, [rows x channels, columns of one channel] */
static eqnn_tensor *eqnn__contraction_sum(eqnn_tensor *x, const eqnn__contraction *k,
                                          eqnn_ints *species)
{
    int rows = x->rows / k->channels;
    eqnn_tensor *z = NULL, *T = x;
    for (int nu = 1; nu <= k->correlation; nu++) {
        const eqnn__order *o = &k->order[nu], *below = &k->order[nu - 1];
        eqnn_tensor *both[2] = { T, x };
        if (nu > 2 && !below->cols) break;
        if (nu > 2) T = eqnn__contraction_form(below->couple, x->rows, both, 2, below->cols);
        if (!T) return NULL;
        if (!o->weights) continue;
        eqnn_tensor *v[3] = { x, eqnn__contraction_weights(x->ctx, k, nu, rows, species), T };
        eqnn_tensor *part =
            eqnn__contraction_form(o->finish, x->rows, v, nu > 1 ? 3 : 2, k->cols);
        z = z ? eqnn_add(z, part) : part;
        if (!z) return NULL;
    }
    return z ? z : eqnn_zeros(x->ctx, x->rows, k->cols);
}

EQNN_API eqnn_tensor *eqnn_symmetric_contraction(eqnn_tensor *x, const char *name,
                                                 const char *irreps_out,
                                                 const eqnn_contraction_opts *opts)
{
    if (eqnn__bad(x, "symmetric_contraction")) return NULL;
    eqnn_ctx *c = x->ctx;
    eqnn_ints *species = opts ? opts->species : NULL;
    int correlation = opts && opts->correlation ? opts->correlation : 3;
    const eqnn_irreps *in = eqnn__irreps_of(x, "symmetric_contraction");
    const eqnn_irreps *out = in ? eqnn_irreps_make(c, irreps_out) : NULL;
    if (!out || !(x = eqnn_enter(x, name))) return NULL;
    if (species && (species->ctx != c || species->count != x->rows || species->range < 1))
        return eqnn__fail(c, "symmetric_contraction%s: %d species of range %d for %d rows; the "
                             "range is the number of species", eqnn__place(c), species->count,
                          species->range, x->rows);
    const eqnn__contraction *k = eqnn__contraction_find(c, in, out, correlation);
    if (!k) return NULL;
    if (out->cols == 0) return eqnn_leave(eqnn__tag(eqnn_zeros(c, x->rows, 0), out));
    int rows = x->rows;
    x = eqnn_columns(eqnn__bare(x), k->gather);
    x = eqnn_reshape(x, rows * k->channels, k->leaf->cols);
    eqnn_tensor *z = x ? eqnn__contraction_sum(x, k, species) : NULL;
    z = eqnn_reshape(z, rows, k->channels * k->cols);
    return eqnn_leave(eqnn__tag(eqnn_columns(z, k->scatter), out));
}

/* --- linear maps of irreps --- */

/* Paths between equal irreps, found again by labels and options. */
struct eqnn__linear_entry {
    eqnn__linear_entry *next;
    const eqnn_irreps *in, *out;
    eqnn_irreps_linear_opts o;   /* paths and bias_blocks are own copies                  */
    int weights, biases;
    const void *mix;
    eqnn_ints *bias_column;      /* column of each bias                                   */
};

static int eqnn__linear_same(const eqnn__linear_entry *e, const eqnn_irreps *in,
                             const eqnn_irreps *out, const eqnn_irreps_linear_opts *o)
{
    if (e->in != in || e->out != out || !e->o.biases != !o->biases ||
        e->o.path_kind != o->path_kind || !e->o.paths != !o->paths ||
        e->o.path_count != o->path_count || !e->o.bias_blocks != !o->bias_blocks)
        return 0;
    for (int b = 0; o->bias_blocks && b < out->blocks; b++)
        if (!e->o.bias_blocks[b] != !o->bias_blocks[b]) return 0;
    for (int i = 0; o->paths && i < o->path_count; i++)
        if (e->o.paths[i][0] != o->paths[i][0] || e->o.paths[i][1] != o->paths[i][1]) return 0;
    return 1;
}

/* The i-th path, or 0 when there is none: those given, or all between equal irreps, the input's
   outermost. at is the place in that list, -1 at first. */
static int eqnn__linear_next(const eqnn_irreps *in, const eqnn_irreps *out,
                             const eqnn_irreps_linear_opts *o, int64_t *at, int path[2])
{
    if (o->paths) {
        if (++*at >= o->path_count) return 0;
        path[0] = o->paths[*at][0];
        path[1] = o->paths[*at][1];
        return 1;
    }
    while (++*at < (int64_t)in->blocks * out->blocks) {
        path[0] = (int)(*at / out->blocks);
        path[1] = (int)(*at % out->blocks);
        if (in->block[path[0]].type == out->block[path[1]].type) return 1;
    }
    return 0;
}

/* 1 / sqrt(fan): of all inputs that are summed ("element"), or shared evenly by the paths
   ("path") */
static double eqnn__linear_scale(const eqnn_irreps *in, const eqnn_irreps *out,
                                 const eqnn_irreps_linear_opts *o, const int path[2])
{
    int64_t at = -1;
    int other[2];
    double fan = 0, same = 0;
    while (eqnn__linear_next(in, out, o, &at, other))
        if (other[1] == path[1]) {
            fan += in->block[other[0]].copies;
            same++;
        }
    if (o->path_kind == EQNN_PATH) fan = same * in->block[path[0]].copies;
    return o->path_kind == EQNN_PLAIN || fan == 0 ? 1 : 1 / sqrt(fan);
}

static int eqnn__linear_path_fits(eqnn_ctx *c, const eqnn_irreps *in, const eqnn_irreps *out,
                                  const int path[2])
{
    int inside = path[0] >= 0 && path[0] < in->blocks && path[1] >= 0 && path[1] < out->blocks;
    if (inside && in->block[path[0]].type == out->block[path[1]].type) return 1;
    eqnn__fail(c,
               "irreps_linear%s: path (%d,%d) does not lead from a block of %s to one of %s of the "
               "same irrep",
               eqnn__place(c), path[0], path[1], in->name, out->name);
    return 0;
}

static int eqnn__linear_mix(eqnn_ctx *c, eqnn__linear_entry *e)
{
    int path[2], n = 0;
    int64_t at = -1;
    double weights = 0;
    while (eqnn__linear_next(e->in, e->out, &e->o, &at, path)) n++;
    eqnn__mix_block *block = (eqnn__mix_block *)eqnn__temp(c, (size_t)n, sizeof *block);
    if (!block) return 0;
    at = -1;
    n = 0;
    while (eqnn__linear_next(e->in, e->out, &e->o, &at, path)) {
        if (!eqnn__linear_path_fits(c, e->in, e->out, path)) return 0;
        const eqnn_block *x = &e->in->block[path[0]], *z = &e->out->block[path[1]];
        eqnn__mix_block m = {
            x->type->dim, x->copies, z->copies,
            x->start,     x->copies, (int)weights,
            z->start,     z->copies, eqnn__linear_scale(e->in, e->out, &e->o, path)};
        weights += (double)x->copies * z->copies;
        if (weights > INT_MAX)
            return eqnn__fail(c, "irreps_linear: more weights than an int holds") != NULL;
        if (x->copies > 0 && z->copies > 0) block[n++] = m;
    }
    e->weights = (int)weights;
    e->mix = n ? eqnn__mix_plan(c, block, n) : NULL;
    return !c->failed;
}

static int eqnn__linear_bias(eqnn_ctx *c, eqnn__linear_entry *e)
{
    int *column = (int *)eqnn__temp(c, (size_t)e->out->cols, sizeof(int));
    if (!column) return 0;
    for (int b = 0; b < e->out->blocks; b++) {
        const eqnn_block *z = &e->out->block[b];
        int scalar = z->type->l == 0 && z->type->p == 1;
        if (e->o.bias_blocks ? !e->o.bias_blocks[b] : !(e->o.biases && scalar)) continue;
        if (!scalar) {
            eqnn__fail(c, "irreps_linear%s: a bias on %dx%s would break the symmetry",
                       eqnn__place(c), z->copies, z->type->name);
            return 0;
        }
        for (int u = 0; u < z->copies; u++) column[e->biases++] = z->start + u;
    }
    if (e->biases) e->bias_column = eqnn_ints_make(c, e->biases, column, e->out->cols, 1);
    return !c->failed;
}

/* Own copies of the lists in the options */
static int eqnn__linear_options(eqnn_ctx *c, eqnn__linear_entry *e,
                                const eqnn_irreps_linear_opts *o)
{
    e->o = *o;
    if (o->bias_blocks) {
        int *flag = (int *)eqnn__keep_alloc(c, ((size_t)e->out->blocks + 1) * sizeof(int));
        if (!flag) return 0;
        memcpy(flag, o->bias_blocks, (size_t)e->out->blocks * sizeof(int));
        e->o.bias_blocks = flag;
    }
    if (o->paths) {
        int(*path)[2] = (int(*)[2])eqnn__keep_alloc(c, ((size_t)o->path_count + 1) * sizeof *path);
        if (!path) return 0;
        memcpy(path, o->paths, (size_t)o->path_count * sizeof *path);
        e->o.paths = (const int (*)[2])path;
    }
    return 1;
}

static const eqnn__linear_entry *eqnn__linear_find(eqnn_ctx *c, const eqnn_irreps *in,
                                                   const eqnn_irreps *out,
                                                   const eqnn_irreps_linear_opts *opts)
{
    struct eqnn__tables *t = eqnn__tables_of(c);
    eqnn_irreps_linear_opts o;
    memset(&o, 0, sizeof o);
    if (opts) o = *opts;
    for (eqnn__linear_entry *e = t ? t->linears : NULL; e; e = e->next)
        if (eqnn__linear_same(e, in, out, &o)) return e;
    eqnn__linear_entry *e = t ? (eqnn__linear_entry *)eqnn__keep_alloc(c, sizeof *e) : NULL;
    if (!e) return NULL;
    e->in = in;
    e->out = out;
    if (!eqnn__linear_options(c, e, &o) || !eqnn__linear_mix(c, e) || !eqnn__linear_bias(c, e))
        return NULL;
    e->next = t->linears;
    return t->linears = e;
}

EQNN_API int eqnn_irreps_map_weights(const eqnn_irreps *in, const eqnn_irreps *out,
                                     const eqnn_irreps_linear_opts *opts)
{
    eqnn_irreps_linear_opts o;
    int64_t at = -1;
    int path[2], weights = 0;
    memset(&o, 0, sizeof o);
    if (opts) o = *opts;
    if (!in || !out) return 0;
    while (eqnn__linear_next(in, out, &o, &at, path))
        if (path[0] >= 0 && path[0] < in->blocks && path[1] >= 0 && path[1] < out->blocks)
            weights += in->block[path[0]].copies * out->block[path[1]].copies;
    return weights;
}

static eqnn_tensor *eqnn__linear_apply(const eqnn__linear_entry *e, eqnn_tensor *x, eqnn_tensor *w,
                                       eqnn_tensor *bias)
{
    eqnn_ctx *c = x->ctx;
    eqnn_tensor *both[2] = {x, w};
    int rows = eqnn__stretch_rows(both, 2);
    if (rows < 0 || (e->weights > 0 && (!w || w->cols != e->weights)))
        return eqnn__fail(c, "irreps_map%s: x [%d,%d] and weights [%d,%d]; %s to %s has %d weights",
                          eqnn__place(c), x->rows, x->cols, w ? w->rows : 0, w ? w->cols : 0,
                          e->in->name, e->out->name, e->weights);
    if (bias && (bias->rows != 1 || bias->cols != e->biases))
        return eqnn__fail(c, "irreps_map%s: biases [%d,%d], there are [1,%d]", eqnn__place(c),
                          bias->rows, bias->cols, e->biases);
    eqnn_tensor *y = e->mix ? eqnn__mix(e->mix, x, eqnn__bare(w), e->out->cols)
                            : eqnn_zeros(c, rows, e->out->cols);
    if (bias && e->biases) y = eqnn_add(y, eqnn_collect_columns(eqnn__bare(bias), e->bias_column));
    return eqnn__tag(y, e->out);
}

EQNN_API eqnn_tensor *eqnn_irreps_map(eqnn_tensor *x, eqnn_tensor *w, eqnn_tensor *bias,
                                      const eqnn_irreps *out, const eqnn_irreps_linear_opts *opts)
{
    if (eqnn__bad(x, "irreps_map") || (w && eqnn__bad2(x, w, "irreps_map")) ||
        (bias && eqnn__bad2(x, bias, "irreps_map")))
        return NULL;
    if (!out)
        return eqnn__fail(x->ctx, "irreps_map%s: the irreps are missing (NULL)",
                          eqnn__place(x->ctx));
    const eqnn_irreps *in = eqnn__irreps_of(x, "irreps_map");
    const eqnn__linear_entry *e = in ? eqnn__linear_find(x->ctx, in, out, opts) : NULL;
    return e ? eqnn__linear_apply(e, x, w, bias) : NULL;
}

EQNN_API eqnn_tensor *eqnn_irreps_linear(eqnn_tensor *x, const char *name, const char *irreps_out,
                                         const eqnn_irreps_linear_opts *opts)
{
    if (eqnn__bad(x, "irreps_linear")) return NULL;
    x = eqnn_enter(x, name);
    const eqnn_irreps *in = x ? eqnn__irreps_of(x, "irreps_linear") : NULL;
    const eqnn_irreps *out = in ? eqnn_irreps_make(x->ctx, irreps_out) : NULL;
    const eqnn__linear_entry *e = out ? eqnn__linear_find(x->ctx, in, out, opts) : NULL;
    if (!e) return NULL;
    eqnn_init zeros;
    memset(&zeros, 0, sizeof zeros);
    zeros.kind = EQNN_INIT_ZEROS;
    eqnn_tensor *w = e->weights ? eqnn_param(x->ctx, "weight", 1, e->weights, NULL) : NULL;
    eqnn_tensor *bias = e->biases ? eqnn_param(x->ctx, "bias", 1, e->biases, &zeros) : NULL;
    return eqnn_leave(eqnn__linear_apply(e, x, w, bias));
}

/* --- activations --- */

/* 1 / sqrt(E[f(z)^2]) as e3nn 0.5 has them: means over a million samples of one generator, 1e-3
   away from the integrals */
typedef struct eqnn__moment_constant { eqnn_act act; double p, value; } eqnn__moment_constant;
static const eqnn__moment_constant eqnn__moments[] = {
    {EQNN_SILU, 0, 1.6791767923989418},   {EQNN_TANH, 0, 1.5937334472592695},
    {EQNN_SIGMOID, 0, 1.8467055342154763}, {EQNN_RELU, 0, 1.4163393446331365},
    {EQNN_ABS, 0, 1.001110600838467},     {EQNN_IDENTITY, 0, 1.001110600838467},
    {EQNN_GELU, 0, 1.5360642850770576},   {EQNN_SOFTPLUS, 0, 1.0426436590527184},
    {EQNN_SSP, 0, 1.878204668541552},     {EQNN_ELU, 1, 1.2467863885570512},
    {EQNN_LEAKY_RELU, 0.01, 1.4162684218969974}, {EQNN_SIN, 0, 1.5218334864623193},
    {EQNN_COS, 0, 1.326609063570005},     {EQNN_ERF, 0, 1.4681896754316086},
    {EQNN_POW, 2, 0.5779851362666192}};

struct eqnn__moment_entry {
    eqnn__moment_entry *next;
    eqnn_act act;
    double p, value;
};

/* the parameter of those that have one, when nobody says */
static double eqnn__act_default(eqnn_act act)
{
    switch (act) {
    case EQNN_LEAKY_RELU: return 0.01;
    case EQNN_ELU: return 1;
    case EQNN_POW: return 2;
    case EQNN_POLY_CUTOFF: return 6;
    default: return 0;
    }
}

/* f(-x) = f(x): 1, -f(x): -1, neither: 0 */
static int eqnn__act_parity(eqnn_act act, double p)
{
    switch (act) {
    case EQNN_COS: case EQNN_ABS: case EQNN_SINC: case EQNN_COSINE_BUMP: return 1;
    case EQNN_IDENTITY: case EQNN_SIN: case EQNN_TANH: case EQNN_ERF: return -1;
    case EQNN_POW: return p != floor(p) ? 0 : fmod(p, 2) == 0 ? 1 : -1;
    default: return 0;
    }
}

static double eqnn__cutoff_value(double x, double p)
{
    return x >= 1
               ? 0
               : 1 - pow(x, p) * ((p + 1) * (p + 2) / 2 - x * (p * (p + 2) - x * p * (p + 1) / 2));
}

/* f(x) in double whatever the build is */
static double eqnn__act_value(eqnn_act act, double p, double x)
{
    switch (act) {
    case EQNN_IDENTITY: return x;
    case EQNN_EXP: return exp(x);
    case EQNN_LOG: return log(x);
    case EQNN_SIN: return sin(x);
    case EQNN_COS: return cos(x);
    case EQNN_TANH: return tanh(x);
    case EQNN_SIGMOID: return 1 / (1 + exp(-x));
    case EQNN_SILU: return x / (1 + exp(-x));
    case EQNN_SOFTPLUS: return x > 0 ? x + log1p(exp(-x)) : log1p(exp(x));
    case EQNN_SSP: return (x > 0 ? x + log1p(exp(-x)) : log1p(exp(x))) - log(2.0);
    case EQNN_GELU: return x * 0.5 * (1 + erf(x / sqrt(2.0)));
    case EQNN_ERF: return erf(x);
    case EQNN_RELU: return x > 0 ? x : 0;
    case EQNN_ABS: return fabs(x);
    case EQNN_STEP: return x > 0;
    case EQNN_LEAKY_RELU: return x > 0 ? x : p * x;
    case EQNN_ELU: return x > 0 ? x : p * expm1(x);
    case EQNN_POW: return pow(x, p);
    case EQNN_SUS: return x > 0 ? exp(-1 / x) : 0;
    case EQNN_SINC: return x == 0 ? 1 : sin(x) / x;
    case EQNN_SINC_ROOT: return eqnn__sinc_root(x, 0);
    case EQNN_COSINE_CUTOFF: return x < 0.5 ? 1 : x < 1 ? (1 - cos(2 * EQNN__PI * (x - 1))) / 2 : 0;
    case EQNN_POLY_CUTOFF: return eqnn__cutoff_value(x, p);
    case EQNN_COSINE_BUMP: return fabs(x) < 1 ? cos(EQNN__PI * x / 2) : 0;
    default: return NAN;
    }
}

/* 1 / sqrt(integral of f(z)^2 exp(-z^2/2) / sqrt(2 pi)): five Gauss points in each of many cells,
   whose borders lie on the kinks (0, 1/2, 1) */
static double eqnn__moment_integral(eqnn_act act, double p)
{
    static const double at[3] = {0, 0.53846931010568309, 0.90617984593866399};
    static const double weight[3] = {0.56888888888888889, 0.47862867049936647, 0.23692688505618909};
    double sum = 0, half = 1 / 64.0;
    for (int cell = -512; cell < 512; cell++)
        for (int k = -2; k <= 2; k++) {
            double z = (2 * cell + 1) * half + (k < 0 ? -1 : 1) * half * at[abs(k)];
            double f = eqnn__act_value(act, p, z);
            sum += half * weight[abs(k)] * f * f * exp(-z * z / 2);
        }
    return 1 / sqrt(sum / sqrt(2 * EQNN__PI));
}

static double eqnn__moment_exact(eqnn_ctx *c, eqnn_act act, double p)
{
    struct eqnn__tables *t = eqnn__tables_of(c);
    for (eqnn__moment_entry *e = t ? t->moments : NULL; e; e = e->next)
        if (e->act == act && e->p == p) return e->value;
    eqnn__moment_entry *e = t ? (eqnn__moment_entry *)eqnn__keep_alloc(c, sizeof *e) : NULL;
    double value = eqnn__moment_integral(act, p);
    if (!(value > 0) || !(value < HUGE_VAL)) {
        eqnn__fail(c, "moment%s: activation %d has no second moment", eqnn__place(c), (int)act);
        return NAN;
    }
    if (!e) return value;
    e->act = act;
    e->p = p;
    e->value = fabs(value - 1) < 1e-4 ? 1 : value;
    e->next = t->moments;
    t->moments = e;
    return e->value;
}

EQNN_API double eqnn_moment(eqnn_ctx *c, eqnn_act act, double p, int exact)
{
    int n = (int)(sizeof eqnn__moments / sizeof eqnn__moments[0]);
    int has_p = eqnn__act_default(act) != 0;
    if (!c || c->failed) return NAN;
    for (int i = 0; !exact && i < n; i++)
        if (eqnn__moments[i].act == act && (!has_p || eqnn__moments[i].p == p))
            return eqnn__moments[i].value;
    return eqnn__moment_exact(c, act, has_p ? p : 0);
}

/* f(x) divided by its second moment; EQNN_IDENTITY: x itself */
static eqnn_tensor *eqnn__act(eqnn_tensor *x, eqnn_act act, int exact)
{
    double p = eqnn__act_default(act);
    if (!x || act == EQNN_IDENTITY) return x;
    return eqnn_scale(eqnn_map(x, act, p, 0), eqnn_moment(x->ctx, act, p, exact));
}

/* The parity of f's values on a block; 0 and a sentence when it may not stand there. */
static int eqnn__act_block(eqnn_ctx *c, const char *op, const eqnn_block *b, eqnn_act act)
{
    int parity = eqnn__act_parity(act, eqnn__act_default(act));
    if (act == EQNN_IDENTITY) return b->type->p;
    if (b->type->l > 0) {
        eqnn__fail(c,
                   "%s%s: %dx%s is not invariant; a pointwise function would break the symmetry; "
                   "use eqnn_gate",
                   op, eqnn__place(c), b->copies, b->type->name);
        return 0;
    }
    if (b->type->p > 0) return 1;
    if (!parity)
        eqnn__fail(
            c, "%s%s: %dx%s changes sign under inversion, and the function is neither even nor odd",
            op, eqnn__place(c), b->copies, b->type->name);
    return parity;
}

/* Label after one act per block; NULL and a sentence when it is not possible. */
static const eqnn_irreps *eqnn__act_label(eqnn_ctx *c, const char *op, const eqnn_irreps *in,
                                          const eqnn_act *acts)
{
    int (*block)[3] = (int (*)[3])eqnn__temp(c, (size_t)in->blocks, sizeof *block);
    if (!block) return NULL;
    for (int b = 0; b < in->blocks; b++) {
        block[b][0] = in->block[b].copies;
        block[b][1] = in->block[b].type->l;
        block[b][2] = eqnn__act_block(c, op, &in->block[b], acts ? acts[b] : EQNN_IDENTITY);
        if (!block[b][2]) return NULL;
    }
    return eqnn_irreps_blocks(c, (const int (*)[3])block, in->blocks);
}

/* Acts on the columns of unlabelled x that in describes, a run of equal acts at a time. */
static eqnn_tensor *eqnn__act_runs(eqnn_tensor *x, const eqnn_irreps *in, const eqnn_act *acts,
                                   int exact)
{
    eqnn_tensor **part =
        x ? (eqnn_tensor **)eqnn__temp(x->ctx, (size_t)in->blocks, sizeof *part) : NULL;
    int n = 0;
    if (!part) return NULL;
    for (int first = 0, last; first < in->blocks; first = last) {
        int cols = 0;
        for (last = first; last < in->blocks && acts[last] == acts[first]; last++)
            cols += in->block[last].copies * in->block[last].type->dim;
        if (cols == 0) continue;
        eqnn_tensor *run = cols == x->cols ? x : eqnn_slice(x, in->block[first].start, cols);
        if (!(part[n++] = eqnn__act(run, acts[first], exact))) return NULL;
    }
    return n == 0 ? x : n == 1 ? part[0] : eqnn_concat_n(part, n);
}

EQNN_API eqnn_tensor *eqnn_activation(eqnn_tensor *x, const eqnn_act *acts, int exact)
{
    if (eqnn__bad(x, "activation")) return NULL;
    const eqnn_irreps *in = eqnn__irreps_of(x, "activation");
    if (!in) return NULL;
    if (!acts && in->blocks)
        return eqnn__fail(x->ctx, "activation%s: the acts are missing", eqnn__place(x->ctx));
    const eqnn_irreps *out = eqnn__act_label(x->ctx, "activation", in, acts);
    return out ? eqnn_as(eqnn__act_runs(eqnn__bare(x), in, acts, exact), out) : NULL;
}

/* --- gates --- */

/* Columns to take from the input: a run, or a list. */
typedef struct eqnn__columns { int first, count; eqnn_ints *index; } eqnn__columns;

/* The input holds scalars, gates and gated blocks sorted by irrep (a Linear before it then is one
   matrix for each irrep); the output is the activated scalars, then the gated copies times their
   gates. */
struct eqnn__gate_entry {
    eqnn__gate_entry *next;
    eqnn_gate_spec spec; /* acts are own copies */
    const eqnn_irreps *in, *out;
    eqnn__columns scalars, gates, gated;
    const void *copies;  /* gated column times gate */
};

static int eqnn__acts_same(const eqnn_act *a, const eqnn_act *b, int n)
{
    for (int i = 0; i < n; i++)
        if (a[i] != b[i]) return 0;
    return 1;
}

static int eqnn__gate_same(const eqnn_gate_spec *a, const eqnn_gate_spec *b)
{
    return a->scalars == b->scalars && a->gates == b->gates && a->gated == b->gated &&
           !a->exact == !b->exact &&
           eqnn__acts_same(a->act_scalars, b->act_scalars, a->scalars->blocks) &&
           eqnn__acts_same(a->act_gates, b->act_gates, a->gates->blocks);
}

/* Columns in the input of each list's columns. Equal irreps stand in the order scalars, gates,
   gated. */
static void eqnn__gate_places(const eqnn_irreps *in, const eqnn_irreps *const list[3],
                              int *place[3], int *done)
{
    for (int k = 0; k < 3; k++)
        for (int b = 0; b < list[k]->blocks; b++) {
            const eqnn_block *a = &list[k]->block[b];
            int at = 0;
            if (a->copies == 0) continue;
            while (in->block[at].type != a->type) at++;
            for (int m = 0; m < a->type->dim; m++)
                for (int u = 0; u < a->copies; u++)
                    place[k][a->start + m * a->copies + u] =
                        in->block[at].start + m * in->block[at].copies + done[at] + u;
            done[at] += a->copies;
        }
}

static int eqnn__columns_make(eqnn_ctx *c, eqnn__columns *a, const int *place, int count, int range)
{
    int run = 1;
    for (int i = 1; i < count; i++)
        if (place[i] != place[0] + i) run = 0;
    a->first = count ? place[0] : 0;
    a->count = count;
    if (!run) a->index = eqnn_ints_make(c, count, place, range, 1);
    return run || a->index != NULL;
}

static eqnn_tensor *eqnn__columns_take(const eqnn__columns *a, eqnn_tensor *x)
{
    if (!x || (!a->index && a->first == 0 && a->count == x->cols)) return x;
    return a->index ? eqnn_columns(x, a->index) : eqnn_slice(x, a->first, a->count);
}

/* The gated part of the output: blocks are cut where gates of another parity begin. gate: parity
   after the act and copies, block by block. Fills block (NULL: counts), the source column in gated
   and the gate of every output column. */
static int eqnn__gate_blocks(const eqnn_irreps *gated, const eqnn_irreps *gates, int (*block)[3],
                             int *from, int *gate)
{
    int n = 0, g = 0, used = 0, copy = 0, at = 0;
    for (int b = 0; b < gated->blocks; b++) {
        const eqnn_block *a = &gated->block[b];
        for (int u = 0, take; u < a->copies; u += take, copy += take, used += take) {
            while (g < gates->blocks && used >= gates->block[g].copies) g++, used = 0;
            take = gates->block[g].copies - used < a->copies - u ? gates->block[g].copies - used
                                                                 : a->copies - u;
            if (block) {
                block[n][0] = take;
                block[n][1] = a->type->l;
                block[n][2] = a->type->p * gates->block[g].type->p;
                for (int m = 0; m < a->type->dim; m++)
                    for (int k = 0; k < take; k++, at++) {
                        from[at] = a->start + m * a->copies + u + k;
                        gate[at] = copy + k;
                    }
            }
            n++;
        }
    }
    return n;
}

/* What the acts make of the gates, equal neighbours merged; gated too. */
static int eqnn__gate_output(eqnn_ctx *c, eqnn__gate_entry *e, const int *place)
{
    const eqnn_gate_spec *s = &e->spec;
    const eqnn_irreps *scalars = eqnn__act_label(c, "gate", s->scalars, s->act_scalars);
    const eqnn_irreps *gates = scalars ? eqnn__act_label(c, "gate", s->gates, s->act_gates) : NULL;
    gates = gates ? eqnn_irreps_simplify(c, gates) : NULL;
    if (!gates) return 0;
    size_t cols = (size_t)s->gated->cols,
           n = (size_t)eqnn__gate_blocks(s->gated, gates, NULL, NULL, NULL);
    int (*block)[3] = (int (*)[3])eqnn__temp(c, n, sizeof *block);
    int *from = (int *)eqnn__temp(c, cols, sizeof(int)),
        *gate = (int *)eqnn__temp(c, cols, sizeof(int));
    if (!block || !from || !gate) return 0;
    eqnn__gate_blocks(s->gated, gates, block, from, gate);
    for (size_t i = 0; i < cols; i++) from[i] = place[from[i]];
    const eqnn_irreps *gated = eqnn_irreps_blocks(c, (const int (*)[3])block, (int)n);
    e->out = gated ? eqnn_irreps_concat(c, scalars, gated) : NULL;
    if (cols) e->copies = eqnn__copy_plan(c, gate, (int)cols, gates->cols);
    return e->out && (e->copies || !cols) &&
           eqnn__columns_make(c, &e->gated, from, (int)cols, e->in->cols);
}

static int eqnn__gate_fill(eqnn_ctx *c, eqnn__gate_entry *e)
{
    eqnn_gate_spec *s = &e->spec;
    s->gated = eqnn_irreps_simplify(c, s->gated);
    const eqnn_irreps *all = eqnn_irreps_concat(c, s->scalars, s->gates);
    all = all ? eqnn_irreps_concat(c, all, s->gated) : NULL;
    e->in = all ? eqnn_irreps_regroup(c, all) : NULL;
    if (!e->in) return 0;
    const eqnn_irreps *list[3] = {s->scalars, s->gates, s->gated};
    int *place[3], *done = (int *)eqnn__temp(c, (size_t)e->in->blocks, sizeof(int));
    for (int k = 0; k < 3; k++)
        if (!(place[k] = (int *)eqnn__temp(c, (size_t)list[k]->cols, sizeof(int)))) return 0;
    if (!done) return 0;
    eqnn__gate_places(e->in, list, place, done);
    return eqnn__columns_make(c, &e->scalars, place[0], s->scalars->cols, e->in->cols) &&
           eqnn__columns_make(c, &e->gates, place[1], s->gates->cols, e->in->cols) &&
           eqnn__gate_output(c, e, place[2]);
}

static const eqnn_act *eqnn__acts_copy(eqnn_ctx *c, const eqnn_act *acts, int n)
{
    eqnn_act *own = (eqnn_act *)eqnn__keep_alloc(c, ((size_t)n + 1) * sizeof *own);
    if (own && n) memcpy(own, acts, (size_t)n * sizeof *own);
    return own;
}

static int eqnn__gate_fits(eqnn_ctx *c, const eqnn_gate_spec *s)
{
    if (!s || !s->scalars || !s->gates || !s->gated || (s->scalars->blocks && !s->act_scalars) ||
        (s->gates->blocks && !s->act_gates)) {
        eqnn__fail(c, "gate%s: irreps or acts are missing (NULL)", eqnn__place(c));
        return 0;
    }
    if (eqnn_irreps_lmax(s->scalars) > 0 || eqnn_irreps_lmax(s->gates) > 0) {
        eqnn__fail(c, "gate%s: scalars %s and gates %s must have degree 0", eqnn__place(c),
                   s->scalars->name, s->gates->name);
        return 0;
    }
    if (s->gates->copies == s->gated->copies) return 1;
    eqnn__fail(c, "gate%s: %d gates (%s) for %d gated copies (%s)", eqnn__place(c),
               s->gates->copies, s->gates->name, s->gated->copies, s->gated->name);
    return 0;
}

static const eqnn__gate_entry *eqnn__gate_find(eqnn_ctx *c, const eqnn_gate_spec *s)
{
    struct eqnn__tables *t = eqnn__tables_of(c);
    if (!t || c->failed || !eqnn__gate_fits(c, s)) return NULL;
    eqnn_gate_spec key = *s;
    key.gated = eqnn_irreps_simplify(c, s->gated);
    for (eqnn__gate_entry *e = t->gates; e; e = e->next)
        if (eqnn__gate_same(&e->spec, &key)) return e;
    eqnn__gate_entry *e = (eqnn__gate_entry *)eqnn__keep_alloc(c, sizeof *e);
    if (!e || !key.gated) return NULL;
    e->spec = key;
    e->spec.act_scalars = eqnn__acts_copy(c, s->act_scalars, s->scalars->blocks);
    e->spec.act_gates = eqnn__acts_copy(c, s->act_gates, s->gates->blocks);
    if (!e->spec.act_scalars || !e->spec.act_gates || !eqnn__gate_fill(c, e)) return NULL;
    e->next = t->gates;
    return t->gates = e;
}

EQNN_API const eqnn_irreps *eqnn_gate_in(eqnn_ctx *c, const eqnn_gate_spec *s)
{
    const eqnn__gate_entry *e = c ? eqnn__gate_find(c, s) : NULL;
    return e ? e->in : NULL;
}

EQNN_API eqnn_tensor *eqnn_gate(eqnn_tensor *x, const eqnn_gate_spec *s)
{
    if (eqnn__bad(x, "gate")) return NULL;
    const eqnn__gate_entry *e = eqnn__gate_find(x->ctx, s);
    if (!e) return NULL;
    if (!eqnn__has_columns(x, e->in))
        return eqnn__fail(x->ctx, "gate%s: x is %s [%d,%d], it must be %s", eqnn__place(x->ctx),
                          eqnn__label_text(x->label), x->rows, x->cols, e->in->name);
    x = eqnn__bare(x);
    eqnn_tensor *scalars = eqnn__columns_take(&e->scalars, x);
    scalars = eqnn__act_runs(scalars, e->spec.scalars, e->spec.act_scalars, s->exact);
    if (!e->copies || !scalars) return eqnn_as(scalars, e->out);
    eqnn_tensor *gates = eqnn__columns_take(&e->gates, x),
                *gated = eqnn__columns_take(&e->gated, x);
    gates = eqnn__act_runs(gates, e->spec.gates, e->spec.act_gates, s->exact);
    if (!gates || !gated) return NULL;
    gated = eqnn__copy_form(e->copies, gated, gates, NULL, gates->cols, 2);
    return eqnn_as(e->scalars.count ? eqnn_concat(scalars, gated) : gated, e->out);
}

/* --- FullyConnectedNet --- */

static void eqnn__fc_defaults(eqnn_fc_opts *o, const eqnn_fc_opts *given)
{
    memset(o, 0, sizeof *o);
    if (given) *o = *given;
    if (o->act == EQNN_IDENTITY) o->act = EQNN_SILU;
    if (o->no_act) o->act = EQNN_IDENTITY;
    if (!(o->variance_in > 0)) o->variance_in = 1;
    if (!(o->variance_out > 0)) o->variance_out = 1;
}

/* The next number of "64,64,12"; 0 at the end, -1 when it is none. */
static int eqnn__width(const char **text)
{
    const char *s = *text;
    char *end;
    while (*s == ' ' || *s == ',') s++;
    if (!*s) return 0;
    long n = strtol(s, &end, 10);
    *text = end;
    while (*end == ' ') end++;
    return end == s || n < 1 || n > INT_MAX || (*end && *end != ',') ? -1 : (int)n;
}

/* All but the last matrix product: returns its left factor, and its right one, scaled, in *V, so
   that message can take them apart. Inside a hidden layer the activation's constant and the
   1/sqrt(fan) of the next one are put on the weights, which are fewer than the features. */
static eqnn_tensor *eqnn__fc_split(eqnn_tensor *x, const char *widths, const eqnn_fc_opts *o,
                                   eqnn_tensor **V)
{
    eqnn_ctx *c = x->ctx;
    const char *text = widths ? widths : "";
    double variance = o->variance_in, constant = 1;
    int next = eqnn__width(&text);
    for (int layer = 0; next > 0; layer++) {
        int width = next;
        next = eqnn__width(&text);
        eqnn_tensor *w =
            eqnn_param(c, eqnn_format(c, "layer%d.weight", layer), x->cols, width, NULL);
        double scale = constant / sqrt(variance * (x->cols > 0 ? x->cols : 1));
        if (next == 0 && !o->out_act) scale *= sqrt(o->variance_out);
        *V = eqnn_scale(w, scale);
        if (next <= 0) break;
        x = eqnn_map(eqnn_matmul(x, *V), o->act, eqnn__act_default(o->act), 0);
        if (!x) return NULL;
        constant = o->act == EQNN_IDENTITY
                       ? 1
                       : eqnn_moment(c, o->act, eqnn__act_default(o->act), o->exact);
        variance = 1;
    }
    if (next < 0 || !*V)
        return eqnn__fail(c, "fc%s: widths \"%s\" are no list of sizes", eqnn__place(c), widths);
    return x;
}

EQNN_API eqnn_tensor *eqnn_fc(eqnn_tensor *x, const char *name, const char *widths,
                              const eqnn_fc_opts *opts)
{
    eqnn_fc_opts o;
    eqnn_tensor *V = NULL;
    if (eqnn__bad(x, "fc")) return NULL;
    eqnn__fc_defaults(&o, opts);
    if (!eqnn__invariant(x->label))
        return eqnn__fail(x->ctx, "fc%s: %s is not invariant; use eqnn_irreps_linear",
                          eqnn__place(x->ctx), x->label->name);
    x = eqnn_enter(eqnn__bare(x), name);
    x = x ? eqnn__fc_split(x, widths, &o, &V) : NULL;
    x = eqnn_matmul(x, V);
    if (o.out_act) x = eqnn_scale(eqnn__act(x, o.act, o.exact), sqrt(o.variance_out));
    return eqnn_leave(x);
}

/* --- products: outer, elementwise, square --- */

/* Paths under construction, each with its own output block; path NULL: they are only counted. */
typedef struct eqnn__path_list {
    eqnn_path *path;
    int (*block)[3];
    int n, too_large;
} eqnn__path_list;
typedef void (*eqnn__lister)(eqnn__path_list *a, const eqnn_product *key);

static void eqnn__path_add(eqnn__path_list *a, const eqnn_path *t, int64_t copies, int l, int p)
{
    if (copies > INT_MAX) a->too_large = 1, copies = 0;
    if (a->path) {
        a->path[a->n] = *t;
        a->path[a->n].io = a->n;
        a->block[a->n][0] = (int)copies, a->block[a->n][1] = l, a->block[a->n][2] = p;
    }
    a->n++;
}

/* The product of all paths that are listed; sorted: its output by (l, p). */
static const eqnn_product *eqnn__product_listed(eqnn_ctx *c, const eqnn_product *key,
                                                eqnn__lister list, int sorted)
{
    eqnn__path_list a;
    const eqnn_product *p = eqnn__product_find(c, key, NULL, 0);
    if (p || c->failed) return p;
    memset(&a, 0, sizeof a);
    list(&a, key);
    a.path = (eqnn_path *)eqnn__temp(c, (size_t)a.n, sizeof *a.path);
    a.block = (int (*)[3])eqnn__temp(c, (size_t)a.n, sizeof *a.block);
    int *place = (int *)eqnn__temp(c, (size_t)a.n, sizeof(int));
    if (!a.path || !a.block || !place) return NULL;
    a.n = 0;
    list(&a, key);
    if (a.too_large)
        return (const eqnn_product *)eqnn__fail(c, "product%s: more copies than an int holds",
                                                eqnn__place(c));
    const eqnn_irreps *out = eqnn_irreps_blocks(c, (const int (*)[3])a.block, a.n);
    if (out && sorted) out = eqnn_irreps_sort(c, out, place);
    if (!out) return NULL;
    for (int i = 0; sorted && i < a.n; i++) a.path[i].io = place[i];
    return eqnn__product_new(c, key, out, a.path, a.n);
}

/* Like eqnn__product_start, with inputs simplified and without variances, whose blocks would be
   others. */
static int eqnn__product_begin(eqnn_ctx *c, eqnn_product *key, int kind, const eqnn_irreps *in1,
                               const eqnn_irreps *in2, const eqnn_irreps *wish,
                               const eqnn_product_opts *opts)
{
    if (!eqnn__product_start(c, key, kind, in1, in2, wish, opts)) return 0;
    key->in1 = eqnn_irreps_simplify(c, in1);
    key->in2 = eqnn_irreps_simplify(c, in2);
    for (int i = 0; i < 3; i++) key->var[i] = NULL;
    return key->in1 && key->in2;
}

/* The sum of a pair of blocks over all that it couples to and the filter keeps. */
static void eqnn__list_pair(eqnn__path_list *a, const eqnn_product *key, int i, int j,
                            eqnn_mode mode)
{
    const eqnn_block *x = &key->in1->block[i], *y = &key->in2->block[j];
    int p = x->type->p * y->type->p;
    int64_t copies = mode == EQNN_UVUV ? (int64_t)x->copies * y->copies : x->copies;
    for (int l = abs(x->type->l - y->type->l); l <= x->type->l + y->type->l; l++) {
        eqnn_path t = {i, j, 0, mode, 1, 1};
        if (key->wish && !eqnn_irreps_has(key->wish, l, p)) continue;
        eqnn__path_add(a, &t, copies, l, p);
    }
}

static void eqnn__list_outer(eqnn__path_list *a, const eqnn_product *key)
{
    for (int i = 0; i < key->in1->blocks; i++)
        for (int j = 0; j < key->in2->blocks; j++) eqnn__list_pair(a, key, i, j, EQNN_UVUV);
}

EQNN_API const eqnn_product *eqnn_product_outer(eqnn_ctx *c, const eqnn_irreps *in1,
                                                const eqnn_irreps *in2, const eqnn_irreps *filter,
                                                const eqnn_product_opts *opts)
{
    eqnn_product key;
    if (!eqnn__product_begin(c, &key, EQNN__PRODUCT_OUTER, in1, in2, filter, opts)) return NULL;
    return eqnn__product_listed(c, &key, eqnn__list_outer, 1);
}

/* Cuts both lists where either has a border, so that their blocks pair off:
   5x1o+5x1e and 10x1e become 5x1o+5x1e and 5x1e+5x1e. No block may be empty. */
static int eqnn__cut_both(eqnn_ctx *c, const eqnn_irreps **a, const eqnn_irreps **b)
{
    const eqnn_irreps *x = *a, *y = *b;
    size_t most = (size_t)x->blocks + (size_t)y->blocks;
    int (*cut_x)[3] = (int (*)[3])eqnn__temp(c, most, sizeof *cut_x);
    int (*cut_y)[3] = (int (*)[3])eqnn__temp(c, most, sizeof *cut_y);
    int n = 0, used_x = 0, used_y = 0;
    if (!cut_x || !cut_y) return 0;
    for (int i = 0, j = 0; i < x->blocks && j < y->blocks; n++) {
        const eqnn_block *s = &x->block[i], *t = &y->block[j];
        int left_x = s->copies - used_x, left_y = t->copies - used_y;
        int take = left_x < left_y ? left_x : left_y;
        cut_x[n][0] = cut_y[n][0] = take;
        cut_x[n][1] = s->type->l, cut_x[n][2] = s->type->p;
        cut_y[n][1] = t->type->l, cut_y[n][2] = t->type->p;
        used_x = take == left_x ? 0 : used_x + take;
        used_y = take == left_y ? 0 : used_y + take;
        i += used_x == 0;
        j += used_y == 0;
    }
    *a = eqnn_irreps_blocks(c, (const int (*)[3])cut_x, n);
    *b = eqnn_irreps_blocks(c, (const int (*)[3])cut_y, n);
    return *a && *b;
}

static void eqnn__list_elementwise(eqnn__path_list *a, const eqnn_product *key)
{
    for (int i = 0; i < key->in1->blocks; i++) eqnn__list_pair(a, key, i, i, EQNN_UUU);
}

EQNN_API const eqnn_product *eqnn_product_elementwise(eqnn_ctx *c, const eqnn_irreps *in1,
                                                      const eqnn_irreps *in2,
                                                      const eqnn_irreps *filter,
                                                      const eqnn_product_opts *opts)
{
    eqnn_product key;
    if (!eqnn__product_begin(c, &key, EQNN__PRODUCT_ELEMENTWISE, in1, in2, filter, opts))
        return NULL;
    if (in1->copies != in2->copies)
        return (const eqnn_product *)eqnn__fail(
            c, "product%s: %.80s has %d copies and %.80s has %d: they do not pair off",
            eqnn__place(c), in1->name, in1->copies, in2->name, in2->copies);
    if (!eqnn__cut_both(c, &key.in1, &key.in2)) return NULL;
    return eqnn__product_listed(c, &key, eqnn__list_elementwise, 0);
}

/* What the irrep normalisation puts under the root when an input is multiplied with itself. Two
   copies are as independent as ever: d(l) or d1 d2. A copy with itself is not: for x ~ N(0,1)^d1

       E (sum C x x)^2 = d1 + 2 for l = 0  (E |x|^4 = d1 (d1 + 2), C = 1/sqrt(d1)),
                         2/d(l) per component for even l > 0  (C symmetric and without trace)

   and for unit vectors ("norm") those divided by d1 (d1 + 2), summed over components. Odd l
   vanish. */
static double eqnn__square_factor(const eqnn_product *key, const eqnn_type *x, const eqnn_type *y,
                                  int l, int same_copy)
{
    double d1 = x->dim, d2 = y->dim, d = 2 * l + 1;
    if (key->irrep_kind == EQNN_IRREP_PLAIN) return 1;
    if (key->irrep_kind == EQNN_IRREP_NORM)
        return !same_copy ? d1 * d2 : l == 0 ? d1 : d1 * (d1 + 2) / 2;
    return !same_copy ? d : l == 0 ? 1 / (d1 + 2) : d / 2;
}

/* What blocks i <= j give in degree l: of different blocks every pair of copies (across); of one
   block the pairs u < v (above) and, for even l, each copy with itself (own). */
static int eqnn__square_paths(const eqnn_product *key, int i, int j, int l, const eqnn_mode mode[3],
                              eqnn_path t[2])
{
    const eqnn_block *x = &key->in1->block[i], *y = &key->in1->block[j];
    double pair = eqnn__square_factor(key, x->type, y->type, l, 0);
    eqnn_path across = {i, j, 0, mode[0], 0, pair}, above = {i, i, 0, mode[1], 0, pair};
    eqnn_path own = {i, i, 0, mode[2], 0, eqnn__square_factor(key, x->type, x->type, l, 1)};
    int n = 0;
    if (i != j) t[n++] = across;
    if (i == j && x->copies > 1) t[n++] = above;
    if (i == j && l % 2 == 0) t[n++] = own;
    return n;
}

static int64_t eqnn__square_size(const eqnn_block *x, const eqnn_block *y, eqnn_mode mode)
{
    int64_t u = x->copies, v = y->copies;
    return mode == EQNN_UVUV ? u * v : mode == EQNN_UVU_LESS ? u * (u - 1) / 2 : u;
}

static void eqnn__list_square(eqnn__path_list *a, const eqnn_product *key)
{
    static const eqnn_mode modes[3] = {EQNN_UVUV, EQNN_UVU_LESS, EQNN_UUU};
    eqnn_path t[2];
    for (int i = 0; i < key->in1->blocks; i++)
        for (int j = i; j < key->in1->blocks; j++) {
            const eqnn_block *x = &key->in1->block[i], *y = &key->in1->block[j];
            int p = x->type->p * y->type->p;
            for (int l = abs(x->type->l - y->type->l); l <= x->type->l + y->type->l; l++) {
                if (key->wish && !eqnn_irreps_has(key->wish, l, p)) continue;
                int n = eqnn__square_paths(key, i, j, l, modes, t);
                for (int k = 0; k < n; k++) {
                    t[k].unweighted = 1;
                    eqnn__path_add(a, &t[k], eqnn__square_size(x, y, t[k].mode), l, p);
                }
            }
        }
}

EQNN_API const eqnn_product *eqnn_product_square(eqnn_ctx *c, const eqnn_irreps *in,
                                                 const eqnn_irreps *filter,
                                                 const eqnn_product_opts *opts)
{
    eqnn_product key;
    if (!eqnn__product_begin(c, &key, EQNN__PRODUCT_SQUARE, in, in, filter, opts)) return NULL;
    return eqnn__product_listed(c, &key, eqnn__list_square, 1);
}

/* Paths into given blocks; path NULL: only counts. */
static int eqnn__square_full_paths(const eqnn_product *key, eqnn_path *path)
{
    static const eqnn_mode modes[3] = {EQNN_UVW, EQNN_U_LESS_VW, EQNN_UUW};
    const eqnn_block *in = key->in1->block, *out = key->wish->block;
    eqnn_path t[2];
    int n = 0;
    for (int i = 0; i < key->in1->blocks; i++)
        for (int j = i; j < key->in1->blocks; j++)
            for (int k = 0; k < key->wish->blocks; k++) {
                if (!eqnn__couples(in[i].type, in[j].type, out[k].type)) continue;
                int found = eqnn__square_paths(key, i, j, out[k].type->l, modes, t);
                for (int m = 0; m < found; m++, n++) {
                    t[m].io = k;
                    if (path) path[n] = t[m];
                }
            }
    return n;
}

EQNN_API const eqnn_product *eqnn_product_square_full(eqnn_ctx *c, const eqnn_irreps *in,
                                                      const eqnn_irreps *out,
                                                      const eqnn_product_opts *opts)
{
    eqnn_product key;
    if (!eqnn__product_begin(c, &key, EQNN__PRODUCT_SQUARE_FULL, in, in, out, opts)) return NULL;
    const eqnn_product *p = eqnn__product_find(c, &key, NULL, 0);
    if (p || c->failed) return p;
    int n = eqnn__square_full_paths(&key, NULL);
    eqnn_path *path = (eqnn_path *)eqnn__temp(c, (size_t)n, sizeof *path);
    if (!path) return NULL;
    eqnn__square_full_paths(&key, path);
    return eqnn__product_new(c, &key, out, path, n);
}

/* --- norms and normalisation --- */

EQNN_API eqnn_tensor *eqnn_norm_copies(eqnn_tensor *x)
{
    if (eqnn__bad(x, "norm_copies")) return NULL;
    return eqnn__norm(x, 1);
}

/* Lengths below eps are eps: there the layer is x times the constant act(eps + b) / eps, and its
   gradient that constant. */
EQNN_API eqnn_tensor *eqnn_norm_activation(eqnn_tensor *x, const char *name, eqnn_act act,
                                           const eqnn_norm_activation_opts *opts)
{
    eqnn_norm_activation_opts o;
    memset(&o, 0, sizeof o);
    if (opts) o = *opts;
    if (!(o.eps > 0)) o.eps = 1e-8;
    if (eqnn__bad(x, "norm_activation") || !eqnn__irreps_of(x, "norm_activation")) return NULL;
    x = eqnn_enter(x, name);
    eqnn_tensor *square = eqnn_square_copies(x), *biases = NULL;
    if (!square) return NULL;
    if (!o.no_normalize)
        square = eqnn_max(square, eqnn_full(x->ctx, 1, 1, o.eps * o.eps));
    eqnn_tensor *length = eqnn_sqrt(square), *y = length;
    eqnn_init zeros;
    memset(&zeros, 0, sizeof zeros);
    zeros.kind = EQNN_INIT_ZEROS;
    if (o.bias) biases = eqnn_param(x->ctx, "biases", 1, square->cols, &zeros);
    if (o.bias) y = eqnn_add(y, biases);
    y = eqnn_map(y, act, eqnn__act_default(act), 0);
    if (!o.no_normalize) y = eqnn_div(y, length);
    return eqnn_leave(eqnn_scale_copies(x, y));
}

/* The columns of all 0e blocks, found once for a label. */
static eqnn_ints *eqnn__scalar_columns(eqnn_ctx *c, const eqnn_irreps *label)
{
    eqnn__layout *a = (eqnn__layout *)eqnn__layout_of(c, label);
    if (!a || a->scalars) return a ? a->scalars : NULL;
    int *column = (int *)eqnn__temp(c, (size_t)label->cols, sizeof(int)), n = 0;
    if (!column) return NULL;
    for (int b = 0; b < label->blocks; b++) {
        const eqnn_block *k = &label->block[b];
        for (int u = 0; k->type->l == 0 && k->type->p == 1 && u < k->copies; u++)
            column[n++] = k->start + u;
    }
    return a->scalars = eqnn_ints_make(c, n, column, label->cols, 1);
}

/* One call of the norm: scalars are the columns that are centred. */
typedef struct eqnn__norm_call {
    eqnn_irreps_norm_opts o;
    const eqnn_irreps *in;
    eqnn_ints *scalars;
} eqnn__norm_call;

/* The 0e columns of x minus mean [1 or rows, scalars] */
static eqnn_tensor *eqnn__centred(const eqnn__norm_call *a, eqnn_tensor *x, eqnn_tensor *mean)
{
    if (!x || a->scalars->count == 0) return x;
    return eqnn__tag(eqnn_sub(eqnn__bare(x), eqnn_collect_columns(mean, a->scalars)), x->label);
}

/* |x_u|^2 / d(l), or without dividing ("norm"): [rows, copies] */
static eqnn_tensor *eqnn__copy_power(const eqnn__norm_call *a, eqnn_tensor *x)
{
    eqnn_tensor *square = eqnn_square_copies(x);
    if (!square || a->o.norm) return square;
    double *inverse = (double *)eqnn__temp(x->ctx, (size_t)a->in->copies, sizeof *inverse);
    int n = 0;
    if (!inverse) return NULL;
    for (int b = 0; b < a->in->blocks; b++)
        for (int u = 0; u < a->in->block[b].copies; u++)
            inverse[n++] = 1.0 / a->in->block[b].type->dim;
    return eqnn_mul(square, eqnn_from_double(x->ctx, 1, n, inverse));
}

/* Mean over the rows; or of the largest of each example that has rows. */
static eqnn_tensor *eqnn__batch_power(const eqnn__norm_call *a, eqnn_tensor *power)
{
    eqnn_ints *example = a->o.example;
    if (!a->o.max || !example) return eqnn_mean_rows(power);
    eqnn_tensor *most = eqnn_segment_max(power, example);
    int n = 0;
    for (int i = 0; most && i < example->range; i++) n += example->first[i] < example->first[i + 1];
    return eqnn_scale(eqnn_sum_rows(most), 1.0 / (n ? n : 1));
}

/* Centres *x and returns the mean squares by which to divide: those of the batch when training,
   which are filed too, the running ones otherwise and of no rows. */
static eqnn_tensor *eqnn__batch_statistics(const eqnn__norm_call *a, eqnn_tensor **x)
{
    eqnn_ctx *c = (*x)->ctx;
    eqnn_init ones;
    memset(&ones, 0, sizeof ones);
    ones.kind = EQNN_INIT_ONES;
    eqnn_tensor *mean = eqnn_buffer(c, "running_mean", 1, a->scalars->count, NULL), *m = mean;
    eqnn_tensor *power = eqnn_buffer(c, "running_var", 1, a->in->copies, &ones), *p = power;
    int training = c->training && (*x)->rows > 0;
    if (training) m = eqnn_mean_rows(eqnn_columns(eqnn__bare(*x), a->scalars));
    *x = eqnn__centred(a, *x, m);
    if (!training || !*x) return p;
    p = eqnn__batch_power(a, eqnn__copy_power(a, *x));
    if (!p) return NULL;
    eqnn_file_update(mean, m, a->o.momentum);
    eqnn_file_update(power, p, a->o.momentum);
    return p;
}

/* The same for each example by itself; nothing is remembered. */
static eqnn_tensor *eqnn__instance_statistics(const eqnn__norm_call *a, eqnn_tensor **x)
{
    eqnn_ints *example = a->o.example;
    eqnn_tensor *mean = eqnn_columns(eqnn__bare(*x), a->scalars);
    if (example) mean = eqnn_take(eqnn_segment_mean(mean, example), example);
    *x = eqnn__centred(a, *x, mean);
    eqnn_tensor *power = *x ? eqnn__copy_power(a, *x) : NULL;
    if (!example) return power;
    power = a->o.max ? eqnn_segment_max(power, example) : eqnn_segment_mean(power, example);
    return eqnn_take(power, example);
}

/* x times weight / sqrt(power + eps), plus bias */
static eqnn_tensor *eqnn__normalised(const eqnn__norm_call *a, eqnn_tensor *x, eqnn_tensor *power)
{
    if (!x || !power) return NULL;
    eqnn_init init;
    memset(&init, 0, sizeof init);
    init.kind = EQNN_INIT_ONES;
    eqnn_tensor *factor = eqnn_rsqrt(eqnn_shift(power, a->o.eps));
    if (!a->o.no_affine)
        factor = eqnn_mul(factor, eqnn_param(x->ctx, "weight", 1, a->in->copies, &init));
    eqnn_tensor *y = eqnn_scale_copies(x, factor);
    if (!y || a->o.no_affine || a->o.no_bias) return y;
    init.kind = EQNN_INIT_ZEROS;
    eqnn_tensor *bias = eqnn_param(x->ctx, "bias", 1, a->scalars->count, &init);
    if (a->scalars->count == 0) return y;
    return eqnn__tag(eqnn_add(eqnn__bare(y), eqnn_collect_columns(bias, a->scalars)), x->label);
}

/* Are the examples those of x's rows? */
static int eqnn__examples_fit(const eqnn_tensor *x, const eqnn_ints *example, const char *op)
{
    if (!example || (example->count == x->rows && example->range > 0)) return 1;
    eqnn__fail(x->ctx, "%s%s: %d rows and %d numbers of examples, which must have a range", op,
               eqnn__place(x->ctx), x->rows, example->count);
    return 0;
}

EQNN_API eqnn_tensor *eqnn_irreps_batch_norm(eqnn_tensor *x, const char *name,
                                             const eqnn_irreps_norm_opts *opts)
{
    eqnn__norm_call a;
    const char *op = "irreps_batch_norm";
    memset(&a, 0, sizeof a);
    if (opts) a.o = *opts;
    if (!(a.o.eps > 0)) a.o.eps = 1e-5;
    if (!(a.o.momentum > 0)) a.o.momentum = 0.1;
    if (eqnn__bad(x, op) || !eqnn__examples_fit(x, a.o.example, op)) return NULL;
    a.in = eqnn__irreps_of(x, op);
    a.scalars = a.in ? eqnn__scalar_columns(x->ctx, a.in) : NULL;
    x = a.scalars ? eqnn_enter(x, name) : NULL;
    if (!x) return NULL;
    eqnn_tensor *power =
        a.o.instance ? eqnn__instance_statistics(&a, &x) : eqnn__batch_statistics(&a, &x);
    return eqnn_leave(eqnn__normalised(&a, x, power));
}

EQNN_API eqnn_tensor *eqnn_irreps_dropout(eqnn_tensor *x, const char *name, double p,
                                          eqnn_ints *example)
{
    if (eqnn__bad(x, "irreps_dropout") || !eqnn__examples_fit(x, example, "irreps_dropout"))
        return NULL;
    if (!x->ctx->training || p <= 0) return x;
    int rows = example ? example->range : x->rows, copies = x->label ? x->label->copies : x->cols;
    eqnn_tensor *kept = eqnn_full(x->ctx, rows, copies, p >= 1 ? 0 : 1);
    if (!(p >= 1)) kept = eqnn_dropout(kept, name, p);
    return eqnn_scale_copies(x, example ? eqnn_take(kept, example) : kept);
}

/* --- extracting blocks --- */

EQNN_API eqnn_tensor *eqnn_extract(eqnn_tensor *x, const int *blocks, int n)
{
    if (eqnn__bad(x, "extract")) return NULL;
    eqnn_ctx *c = x->ctx;
    const eqnn_irreps *in = eqnn__irreps_of(x, "extract");
    size_t most = n > 0 ? (size_t)n : 0;
    int (*list)[3] = (int (*)[3])eqnn__temp(c, most, sizeof *list), parts = 0;
    eqnn_tensor **part = (eqnn_tensor **)eqnn__temp(c, most, sizeof *part);
    if (!in || !list || !part) return NULL;
    for (int i = 0; i < n; i++) {
        if (blocks[i] < 0 || blocks[i] >= in->blocks)
            return eqnn__fail(c, "extract%s: block %d of %s, which has %d", eqnn__place(c),
                              blocks[i], in->name, in->blocks);
        const eqnn_block *b = &in->block[blocks[i]];
        list[i][0] = b->copies, list[i][1] = b->type->l, list[i][2] = b->type->p;
        if (b->copies == 0) continue;
        if (!(part[parts++] = eqnn_slice(eqnn__bare(x), b->start, b->copies * b->type->dim)))
            return NULL;
    }
    const eqnn_irreps *out = eqnn_irreps_blocks(c, (const int (*)[3])list, n);
    eqnn_tensor *y = parts ? eqnn_concat_n(part, parts) : eqnn_zeros(c, x->rows, 0);
    return out ? eqnn_as(y, out) : NULL;
}

EQNN_API eqnn_tensor *eqnn_extract_irrep(eqnn_tensor *x, int l, int p)
{
    if (eqnn__bad(x, "extract_irrep")) return NULL;
    const eqnn_irreps *in = eqnn__irreps_of(x, "extract_irrep");
    int *list = in ? (int *)eqnn__temp(x->ctx, (size_t)in->blocks, sizeof(int)) : NULL, n = 0;
    if (!list) return NULL;
    for (int b = 0; b < in->blocks; b++)
        if (in->block[b].type->l == l && in->block[b].type->p == p) list[n++] = b;
    return eqnn_extract(x, list, n);
}

/* --- grids on the sphere and on SO(3) --- */

/* A function on the sphere is evaluated at the points of a grid, changed there, and projected back
   (Cohen et al. 2018, arXiv:1801.10130; Esteves et al. 2018, arXiv:1711.06721). Both ways are one
   constant matrix times the components of each row,

       to     f[p] = sum over k of Y[p][k] n_l x[k]           k = l^2 + l + m
       from   x[k] = sum over p of q[p] 4 pi Y[p][k] / n_l f[p]

   with q the weights of a quadrature that is exact for products of what the grid resolves. The
   harmonics here are orthonormal on the sphere, so from undoes to. A row of C channels is a matrix
   [k][C], its values one [p][C]. It costs points times components multiplications a channel: (lmax,
   points) (2, 30) 270, (4, 90) 2250, (6, 182) 8918. Azimuths and rings one after the other
   would take 1.3, 2.1 and 2.9 times fewer; one large product runs at the machine's speed. */
typedef struct eqnn__grid {
    int so3, lmax, beta, alpha;
    int points, terms;       /* terms: components in all, (lmax+1)^2 on the sphere */
    const eqnn_real *to;     /* [points][terms]                                    */
    const eqnn_real *from;   /* [points][terms], the weights included              */
} eqnn__grid;

struct eqnn__grid_entry {
    eqnn__grid_entry *next;
    eqnn__grid grid;
};

/* Weights of n = 2b rings at beta_i = pi (i + 1/2)/n, the mean over the sphere being the sum over
   rings of weight times the ring's mean (Driscoll and Healy 1994, doi:10.1006/aama.1994.1008; here
   at the midpoints, as Kostelec and Rockmore 2008, doi:10.1007/s00041-008-9013-5, have them):

       w_i = 1/b sin(beta_i) sum over k < b of sin((2k+1) beta_i) / (2k+1)

   Exact for polynomials in cos(beta) of degree below n. Their sum is 1. */
static double eqnn__ring_weight(int n, int i)
{
    double angle = EQNN__PI * (2 * i + 1) / (2.0 * n), sum = 0;
    for (int k = 0; k < n / 2; k++) sum += eqnn__sin_quarter((2 * k + 1) * angle, 0) / (2 * k + 1);
    return 2 * eqnn__sin_quarter(angle, 0) * sum / n;
}

/* Point (i, j) of a grid: R e_y for the rotation of angles alpha_j, beta_i. */
static void eqnn__s2_point(int i, int beta, int j, int alpha, double r[3])
{
    double b = EQNN__PI * (i + 0.5) / beta, a = 2 * EQNN__PI * j / alpha;
    r[0] = eqnn__sin_quarter(b, 0) * eqnn__sin_quarter(a, 0);
    r[1] = eqnn__sin_quarter(b, 1);
    r[2] = eqnn__sin_quarter(b, 0) * eqnn__sin_quarter(a, 1);
}

EQNN_API void eqnn_s2grid_points(int beta, int alpha, double *xyz, double *weight)
{
    for (int i = 0; i < beta; i++) {
        double w = eqnn__ring_weight(beta, i) / alpha;
        for (int j = 0; j < alpha; j++) {
            size_t p = (size_t)i * (size_t)alpha + (size_t)j;
            if (weight) weight[p] = w;
            if (xyz) eqnn__s2_point(i, beta, j, alpha, xyz + 3 * p);
        }
    }
}

/* a b of two matrices [3][3] */
static void eqnn__rotation_times(const double a[9], const double b[9], double ab[9])
{
    for (int i = 0; i < 9; i++) {
        const double *row = a + i / 3 * 3, *col = b + i % 3;
        ab[i] = row[0] * col[0] + row[1] * col[3] + row[2] * col[6];
    }
}

/* The harmonics at every point p, or at R p. */
static void eqnn__s2_tables(const eqnn__grid *g, const double R[9], double *Y, eqnn_real *to,
                            eqnn_real *from)
{
    double k = 1 / sqrt(4 * EQNN__PI);
    for (int i = 0; i < g->beta; i++) {
        double q = 4 * EQNN__PI * eqnn__ring_weight(g->beta, i) / g->alpha, p[3], r[3];
        for (int j = 0; j < g->alpha; j++) {
            eqnn__s2_point(i, g->beta, j, g->alpha, p);
            for (int c = 0; c < 3; c++)
                r[c] = R[3 * c] * p[0] + R[3 * c + 1] * p[1] + R[3 * c + 2] * p[2];
            eqnn_solid_harmonics(g->lmax, r, Y);
            for (int t = 0; t < g->terms; t++) {
                *to++ = (eqnn_real)(k * Y[t]);
                *from++ = (eqnn_real)(q * k * Y[t]);
            }
        }
    }
}

/* sqrt(2l+1) D_lij at every rotation g of the grid, or at g R; these functions are orthonormal for
   the mean over SO(3). Column: component j, then copy i. */
static void eqnn__so3_tables(const eqnn__grid *g, const double R[9], double *D, eqnn_real *to,
                             eqnn_real *from)
{
    double N = sqrt((double)g->terms), turned[9], r[9], step = 2 * EQNN__PI / g->alpha;
    for (int p = 0; p < g->points; p++) {
        int ring = p / g->alpha / g->alpha, at = p / g->alpha % g->alpha;
        double q = eqnn__ring_weight(g->beta, ring) / g->alpha / g->alpha;
        eqnn_rotation_angles(at * step, EQNN__PI * (ring + 0.5) / g->beta, p % g->alpha * step, r);
        eqnn__rotation_times(r, R, turned);
        for (int l = 0; l <= g->lmax; l++) {
            int d = 2 * l + 1;
            double size = sqrt((double)d);
            eqnn_wigner_D(l, turned, D);
            for (int t = 0; t < d * d; t++) {
                double value = size * D[t % d * d + t / d];
                *to++ = (eqnn_real)(value / N);
                *from++ = (eqnn_real)(value * N * q);
            }
        }
    }
}

/* The matrices of a grid: lasting ones, or with R the step's. */
static int eqnn__grid_fill(eqnn_ctx *c, eqnn__grid *g, const double *R)
{
    static const double one[9] = {1, 0, 0, 0, 1, 0, 0, 0, 1};
    size_t n = (size_t)g->points * (size_t)g->terms, d = 2 * (size_t)g->lmax + 1;
    double *work = (double *)eqnn__temp(c, d * d, sizeof *work);
    eqnn_real *to = (eqnn_real *)(R ? eqnn__step_alloc(c, 2 * n * sizeof *to)
                                    : eqnn__keep_alloc(c, 2 * n * sizeof *to));
    if (!work || !to) return 0;
    (g->so3 ? eqnn__so3_tables : eqnn__s2_tables)(g, R ? R : one, work, to, to + n);
    g->to = to;
    g->from = to + n;
    return 1;
}

/* Sizes of a grid for degrees up to lmax; 0 and a sentence when it cannot hold them. */
static int eqnn__grid_sizes(eqnn_ctx *c, const char *op, eqnn__grid *g, const eqnn_grid_opts *o,
                            int lmax)
{
    double points, terms;
    g->beta = o->beta ? o->beta : 2 * (g->lmax > lmax ? g->lmax : lmax) + 2;
    g->alpha = o->alpha ? o->alpha : g->beta - 1;
    if (g->beta < 2 * g->lmax + 2 || g->beta % 2 || g->alpha < 2 * g->lmax + 1) {
        eqnn__fail(c,
                   "%s%s: a grid of %d rings with %d points each for degrees up to %d; it needs an "
                   "even number of rings, at least %d, and at least %d points",
                   op, eqnn__place(c), g->beta, g->alpha, g->lmax, 2 * g->lmax + 2,
                   2 * g->lmax + 1);
        return 0;
    }
    points = (double)g->beta * g->alpha * (g->so3 ? g->alpha : 1);
    terms = g->lmax + 1.0;
    terms = g->so3 ? terms * (2 * terms - 1) * (2 * terms + 1) / 3 : terms * terms;
    if (points * terms > INT_MAX || (g->so3 && g->lmax > EQNN__LMAX)) {
        eqnn__fail(c, "%s%s: %.0f points for %.0f components are too many", op, eqnn__place(c),
                   points, terms);
        return 0;
    }
    g->points = (int)points;
    g->terms = (int)terms;
    return 1;
}

/* The grid of that size, made at its first use; a turned one anew. */
static int eqnn__grid_find(eqnn_ctx *c, eqnn__grid *g, const char *random)
{
    struct eqnn__tables *t = eqnn__tables_of(c);
    double R[9];
    if (!t) return 0;
    if (random) {
        eqnn_rotation_random(c, random, 0, R);
        return eqnn__grid_fill(c, g, R);
    }
    for (eqnn__grid_entry *e = t->grids; e; e = e->next)
        if (e->grid.so3 == g->so3 && e->grid.lmax == g->lmax && e->grid.beta == g->beta &&
            e->grid.alpha == g->alpha) {
            *g = e->grid;
            return 1;
        }
    eqnn__grid_entry *e = (eqnn__grid_entry *)eqnn__keep_alloc(c, sizeof *e);
    if (!e || !eqnn__grid_fill(c, g, NULL)) return 0;
    e->grid = *g;
    e->next = t->grids;
    t->grids = e;
    return 1;
}

/* How many channels irreps have that are C copies of every degree 0, 1, 2, ... (on SO(3) (2l+1) C
   of degree l); 0 and a sentence for others. */
static int eqnn__grid_channels(eqnn_ctx *c, const char *op, const eqnn_irreps *a, int so3)
{
    int good = a->blocks > 0 && a->block[0].copies > 0;
    for (int l = 0; l < a->blocks; l++) {
        int64_t copies = (int64_t)a->block[0].copies * (so3 ? 2 * l + 1 : 1);
        if (a->block[l].type->l != l || a->block[l].copies != copies) good = 0;
    }
    if (!good)
        eqnn__fail(c, "%s%s: %s is no function on %s, which has %s of each degree 0, 1, 2, ...", op,
                   eqnn__place(c), a->name, so3 ? "SO(3)" : "the sphere",
                   so3 ? "2l+1 copies for each channel" : "equally many copies");
    return good ? a->block[0].copies : 0;
}

/* y_r = M x_r, or M^T x_r, for every row r of x, a matrix [cols or rows of M][channels]. M is a
   constant, so the rule is the same with the other one of M and M^T: any order. */
typedef struct eqnn__from_left {
    const eqnn_real *M; /* [rows, cols] */
    int rows, cols, transposed;
} eqnn__from_left;

static eqnn_tensor *eqnn__multiply_left(eqnn_tensor *x, const eqnn__from_left *a);

static eqnn_tensor *eqnn__left_value(eqnn_tensor *const *x, int n, void *user)
{
    const eqnn__from_left *a = (const eqnn__from_left *)user;
    eqnn_ctx *c = x[0]->ctx;
    size_t k = (size_t)(a->transposed ? a->rows : a->cols), ld = (size_t)a->cols;
    size_t m = (size_t)(a->transposed ? a->cols : a->rows), rows = (size_t)x[0]->rows;
    size_t C = (size_t)x[0]->cols / k;
    if (m * C > INT_MAX)
        return eqnn__fail(c, "grid: %zu numbers a row are too many", m * C);
    eqnn_tensor *y = eqnn__new(c, x[0]->rows, (int)(m * C));
    if (!y) return NULL;
    (void)n;
    eqnn__scratch_mark s = eqnn__scratch_begin(
        c, C == 1 ? eqnn__gemm_scratch(&c->device, rows, m, k)
                  : eqnn__gemm_scratch(&c->device, m, C, k));
    if (c->failed) return NULL;
    if (C == 1)
        c->k->gemm(&c->device, 0, !a->transposed, rows, m, k, 1, x[0]->data, k, 0, a->M, ld, 0, 0,
                   y->data, m, 0, 1);
    else
        c->k->gemm(&c->device, a->transposed, 0, m, C, k, 1, a->M, ld, 0, x[0]->data, C, k * C, 0,
                   y->data, C, m * C, rows);
    eqnn__scratch_end(c, s);
    return y;
}

static int eqnn__left_rule(eqnn_tensor *const *x, int n, eqnn_tensor *y, eqnn_tensor *g,
                           const int *want, eqnn_tensor **dx, void *user)
{
    eqnn__from_left a = *(const eqnn__from_left *)user;
    (void)x, (void)n, (void)y;
    a.transposed = !a.transposed;
    if (want[0] && g) dx[0] = eqnn__multiply_left(g, &a);
    return !want[0] || !g || dx[0];
}

static eqnn_tensor *eqnn__multiply_left(eqnn_tensor *x, const eqnn__from_left *a)
{
    eqnn_custom_op op;
    op.name = "grid";
    op.value = eqnn__left_value;
    op.rule = eqnn__left_rule;
    return x ? eqnn_custom(&op, &x, 1, a, sizeof *a) : NULL;
}

/* Coefficients [rows, terms C] times n_l (or its inverse), so that values have variance 1 where

       component   components have variance 1      n_l = sqrt(4 pi / ((2l+1)(lmax_in+1)))
       norm        degrees have squared length 1   n_l = sqrt(4 pi / (lmax_in+1))

   integral: n_l = 1. */
static eqnn_tensor *eqnn__grid_scale(eqnn_tensor *x, const eqnn_irreps *a, const eqnn_grid_opts *o,
                                     int lmax_in, int invert)
{
    if (!x || (!o->scale && o->kind == EQNN_INTEGRAL)) return x;
    double *n = (double *)eqnn__temp(x->ctx, (size_t)a->copies, sizeof *n);
    for (int i = 0, l = 0; n && l < a->blocks; l++)
        for (int u = 0; u < a->block[l].copies; u++) {
            double s = sqrt(4 * EQNN__PI / (lmax_in + 1.0));
            if (o->kind == EQNN_COMPONENT) s /= sqrt(2 * l + 1.0);
            if (o->scale) s = o->scale[l];
            n[i++] = invert ? 1 / s : s;
        }
    return n ? eqnn_scale_copies(x, eqnn_from_double(x->ctx, 1, a->copies, n)) : NULL;
}

/* To the grid; other: a degree that comes into play later. */
static eqnn_tensor *eqnn__to_grid(eqnn_tensor *x, const char *op, int so3, const eqnn_grid_opts *o,
                                  int other)
{
    eqnn_ctx *c = x->ctx;
    const eqnn_irreps *in = eqnn__irreps_of(x, op);
    eqnn__grid g;
    if (!in || !eqnn__grid_channels(c, op, in, so3)) return NULL;
    memset(&g, 0, sizeof g);
    g.so3 = so3;
    g.lmax = in->blocks - 1;
    if (!eqnn__grid_sizes(c, op, &g, o, other) || !eqnn__grid_find(c, &g, o->random)) return NULL;
    eqnn__from_left a = {g.to, g.points, g.terms, 0};
    if (!so3) x = eqnn__grid_scale(eqnn_as(x, in), in, o, g.lmax, 0);
    return eqnn__multiply_left(eqnn__bare(x), &a);
}

static eqnn_tensor *eqnn__from_grid(eqnn_tensor *f, const char *op, int so3, const eqnn_irreps *out,
                                    const eqnn_grid_opts *o, int lmax_in)
{
    eqnn_ctx *c = f->ctx;
    eqnn__grid g;
    if (!out) return eqnn__fail(c, "%s%s: the irreps are missing (NULL)", op, eqnn__place(c));
    if (lmax_in < 0)
        return eqnn__fail(c, "%s%s: lmax_in %d is negative", op, eqnn__place(c), lmax_in);
    int C = eqnn__grid_channels(c, op, out, so3);
    memset(&g, 0, sizeof g);
    g.so3 = so3;
    g.lmax = out->blocks - 1;
    if (!C || !eqnn__grid_sizes(c, op, &g, o, lmax_in)) return NULL;
    if (f->cols / C != g.points || f->cols % C)
        return eqnn__fail(c, "%s%s: values [%d,%d]; %s on a grid of %d points has %.0f", op,
                          eqnn__place(c), f->rows, f->cols, out->name, g.points,
                          (double)C * g.points);
    if (!eqnn__grid_find(c, &g, o->random)) return NULL;
    eqnn__from_left a = {g.from, g.points, g.terms, 1};
    eqnn_tensor *x = eqnn__tag(eqnn__multiply_left(eqnn__bare(f), &a), out);
    return so3 ? x : eqnn__grid_scale(x, out, o, lmax_in, 1);
}

static eqnn_grid_opts eqnn__grid_defaults(const eqnn_grid_opts *opts)
{
    eqnn_grid_opts o;
    memset(&o, 0, sizeof o);
    return opts ? *opts : o;
}

EQNN_API eqnn_tensor *eqnn_to_s2grid(eqnn_tensor *x, const eqnn_grid_opts *opts)
{
    eqnn_grid_opts o = eqnn__grid_defaults(opts);
    return eqnn__bad(x, "to_s2grid") ? NULL : eqnn__to_grid(x, "to_s2grid", 0, &o, 0);
}

EQNN_API eqnn_tensor *eqnn_from_s2grid(eqnn_tensor *values, const eqnn_irreps *irreps,
                                       const eqnn_grid_opts *opts)
{
    eqnn_grid_opts o = eqnn__grid_defaults(opts);
    int lmax = o.lmax_in ? o.lmax_in : irreps ? irreps->blocks - 1 : 0;
    if (eqnn__bad(values, "from_s2grid")) return NULL;
    return eqnn__from_grid(values, "from_s2grid", 0, irreps, &o, lmax);
}

EQNN_API eqnn_tensor *eqnn_to_so3grid(eqnn_tensor *x, const eqnn_grid_opts *opts)
{
    eqnn_grid_opts o = eqnn__grid_defaults(opts);
    return eqnn__bad(x, "to_so3grid") ? NULL : eqnn__to_grid(x, "to_so3grid", 1, &o, 0);
}

EQNN_API eqnn_tensor *eqnn_from_so3grid(eqnn_tensor *values, const eqnn_irreps *irreps,
                                        const eqnn_grid_opts *opts)
{
    eqnn_grid_opts o = eqnn__grid_defaults(opts);
    if (eqnn__bad(values, "from_so3grid")) return NULL;
    return eqnn__from_grid(values, "from_so3grid", 1, irreps, &o, 0);
}

/* Irreps after an act at every point: parities p_val p_arg^l, on SO(3) p_val alone. Where the
   argument is inverted the value is multiplied by p_val; the act passes that on when it is even or
   odd. */
static const eqnn_irreps *eqnn__grid_out(eqnn_ctx *c, const char *op, const eqnn_irreps *in,
                                         int so3, eqnn_act act, int lmax)
{
    int p_val = in->block[0].type->p, parity = eqnn__act_parity(act, eqnn__act_default(act));
    int p_arg = in->blocks > 1 ? p_val * in->block[1].type->p : 1;
    for (int l = 0; l < in->blocks; l++)
        if (in->block[l].type->p != (l % 2 ? p_val * p_arg : p_val) || (so3 && p_arg < 0)) {
            eqnn__fail(c, "%s%s: the parities of %s are those of no function on %s", op,
                       eqnn__place(c), in->name, so3 ? "SO(3)" : "the sphere");
            return NULL;
        }
    if (p_val < 0 && !parity) {
        eqnn__fail(c,
                   "%s%s: the values of %s change sign under inversion, and the function is "
                   "neither even nor odd",
                   op, eqnn__place(c), in->name);
        return NULL;
    }
    if (p_val < 0) p_val = parity;
    int (*block)[3] = (int (*)[3])eqnn__temp(c, (size_t)lmax + 1, sizeof *block);
    for (int l = 0; block && l <= lmax; l++) {
        block[l][0] = in->block[0].copies * (so3 ? 2 * l + 1 : 1);
        block[l][1] = l;
        block[l][2] = l % 2 ? p_val * p_arg : p_val;
    }
    return block ? eqnn_irreps_blocks(c, (const int (*)[3])block, lmax + 1) : NULL;
}

static eqnn_tensor *eqnn__grid_activation(eqnn_tensor *x, const char *op, int so3, eqnn_act act,
                                          const eqnn_grid_opts *opts)
{
    if (eqnn__bad(x, op)) return NULL;
    eqnn_grid_opts o = eqnn__grid_defaults(opts);
    const eqnn_irreps *in = eqnn__irreps_of(x, op);
    if (!in || !eqnn__grid_channels(x->ctx, op, in, so3)) return NULL;
    int lmax = in->blocks - 1, lmax_out = o.lmax_out ? o.lmax_out : lmax;
    if (lmax_out < 0 || lmax_out > 1000)
        return eqnn__fail(x->ctx, "%s%s: a result of degree %d is not possible", op,
                          eqnn__place(x->ctx), lmax_out);
    const eqnn_irreps *out = eqnn__grid_out(x->ctx, op, in, so3, act, lmax_out);
    eqnn_tensor *f = out ? eqnn__to_grid(x, op, so3, &o, lmax_out) : NULL;
    f = eqnn__act(f, act, o.exact);
    return f ? eqnn__from_grid(f, op, so3, out, &o, lmax) : NULL;
}

EQNN_API eqnn_tensor *eqnn_s2_activation(eqnn_tensor *x, eqnn_act act, const eqnn_grid_opts *opts)
{
    return eqnn__grid_activation(x, "s2_activation", 0, act, opts);
}

EQNN_API eqnn_tensor *eqnn_so3_activation(eqnn_tensor *x, eqnn_act act,
                                          const eqnn_grid_opts *opts)
{
    return eqnn__grid_activation(x, "so3_activation", 1, act, opts);
}

#ifdef EQNN__QUICK
#pragma GCC pop_options /* graphs have loops over points */
#endif

/* ----------------------------------------------------------------------------------------------
   12 >>graphs
   ---------------------------------------------------------------------------------------------- */

/* --- sorting edges --- */

/* Integers for a graph: lasting ones for a graph that is kept, else the step's. */
static int *eqnn__graph_room(eqnn_ctx *c, size_t count, int keep)
{
    size_t bytes = (count ? count : 1) * sizeof(int);
    return (int *)(keep ? eqnn__keep_alloc(c, bytes) : eqnn__step_alloc(c, bytes));
}

/* A counting sort: out lists the items of in (NULL: 0..n-1) by key[item], equals as they were;
   those of key k lie at first[k]..first[k+1]-1. Linear in n and the number of keys. */
static void eqnn__count_sort(int n, const int *in, const int *key, int keys, int *first, int *out)
{
    memset(first, 0, ((size_t)keys + 1) * sizeof *first);
    for (int e = 0; e < n; e++) first[key[e] + 1]++;
    for (int k = 0; k < keys; k++) first[k + 1] += first[k];
    for (int e = 0; e < n; e++) {
        int item = in ? in[e] : e;
        out[first[key[item]]++] = item; /* first[k] walks to the end of k ... */
    }
    for (int k = keys; k > 0; k--) first[k] = first[k - 1]; /* ... which is where k + 1 began */
    first[0] = 0;
}

/* An index with its inverse; of a graph without nodes, too, where a range of 0 is meant. */
static eqnn_ints *eqnn__graph_index(eqnn_ctx *c, int count, const int *values, int range, int keep)
{
    eqnn_ints *x = eqnn_ints_make(c, count, values, range, keep);
    if (!x || (range == 0 && !eqnn__ints_invert(x))) return NULL;
    return x;
}

/* The list sorted by (target, source), equal edges in the order given. The inverses of the two
   indices are the edges into a target and, as inverses count up, the edges out of a source by
   (source, target). */
static int eqnn__graph_sort(eqnn_graph *g, const int *source, const int *target, int keep)
{
    eqnn_ctx *c = g->ctx;
    size_t edges = (size_t)g->edges,
           nodes = (size_t)(g->sources > g->targets ? g->sources : g->targets);
    int *order = eqnn__graph_room(c, edges, keep);
    int *first = eqnn__graph_room(c, nodes + 1, 0);
    int *work = eqnn__graph_room(c, 2 * edges, 0);
    if (!order || !first || !work) return 0;
    eqnn__count_sort(g->edges, NULL, source, g->sources, first, work);
    eqnn__count_sort(g->edges, work, target, g->targets, first, order);
    for (size_t e = 0; e < edges; e++) {
        work[e] = source[order[e]];
        work[edges + e] = target[order[e]];
    }
    g->source_index = eqnn__graph_index(c, g->edges, work, g->sources, keep);
    g->target_index = eqnn__graph_index(c, g->edges, work + edges, g->targets, keep);
    if (!g->source_index || !g->target_index) return 0;
    g->source = g->source_index->v;
    g->target = g->target_index->v;
    g->first = g->target_index->first;
    g->first_by_source = g->source_index->first;
    g->by_source = g->source_index->list;
    g->order = order;
    return 1;
}

static int eqnn__graph_examples(eqnn_graph *g, const int *example, int keep)
{
    eqnn_ctx *c = g->ctx;
    int *zeros = NULL;
    if (!example) {
        zeros = eqnn__graph_room(c, (size_t)g->targets, 0);
        if (!zeros) return 0;
        memset(zeros, 0, (size_t)g->targets * sizeof *zeros);
    }
    g->example_index = eqnn__graph_index(c, g->targets, example ? example : zeros, g->examples,
                                         keep);
    if (!g->example_index) return 0;
    if (example) g->example = eqnn_ints_data(g->example_index);
    return 1;
}

static int eqnn__graph_shifts(eqnn_graph *g, const double *shift, int keep)
{
    size_t n = 3 * (size_t)g->edges, bytes = (n ? n : 1) * sizeof(eqnn_real);
    eqnn_real *s = (eqnn_real *)(keep ? eqnn__keep_alloc(g->ctx, bytes)
                                      : eqnn__step_alloc(g->ctx, bytes));
    if (!s) return 0;
    for (size_t e = 0; e < (size_t)g->edges; e++)
        for (size_t k = 0; k < 3; k++) s[3 * e + k] = (eqnn_real)shift[3 * (size_t)g->order[e] + k];
    g->shift = s;
    return 1;
}

/* --- undirected pairs and blocks --- */

/* Does edge f lead back along edge e, through the opposite image? Ends are known to match. */
static int eqnn__is_reverse(const eqnn_graph *g, int e, int f)
{
    if (!g->shift) return 1;
    for (int k = 0; k < 3; k++)
        if (g->shift[3 * (size_t)e + (size_t)k] != -g->shift[3 * (size_t)f + (size_t)k]) return 0;
    return 1;
}

/* Finds the reverse of every edge. Position q of by_source is the q-th edge by (source, target), so
   when every edge has a reverse it leads back along the q-th edge by (target, source). Between the
   same two nodes there may be several edges, a run at positions q..end-1, told apart by their
   images only: equal ones, or more than 64, are not paired. Returns 0 when some edge has no reverse
   of its own. */
static int eqnn__reverses(const eqnn_graph *g, int *reverse)
{
    for (int q = 0, end; q < g->edges; q = end) {
        int s = g->source[q], t = g->target[q];
        for (end = q; end < g->edges && g->source[end] == s && g->target[end] == t; end++) {
            int f = g->by_source[end];
            if (g->source[f] != t || g->target[f] != s) return 0;
        }
        if (end - q > 64) return 0;
        for (int e = q; e < end; e++) {
            int found = 0;
            for (int k = q; k < end; k++)
                if (eqnn__is_reverse(g, e, g->by_source[k])) {
                    reverse[e] = g->by_source[k];
                    found++;
                }
            if (found != 1) return 0;
        }
    }
    return 1;
}

/* Numbers the pairs by their first edge. What depends on lengths only is computed once a pair. */
static int eqnn__graph_pairs(eqnn_graph *g, int keep)
{
    eqnn_ctx *c = g->ctx;
    if (g->sources != g->targets || !g->edges) return 1;
    int *reverse = eqnn__graph_room(c, (size_t)g->edges, 0);
    int *pair = eqnn__graph_room(c, (size_t)g->edges, 0);
    int *edge = eqnn__graph_room(c, (size_t)g->edges, 0), pairs = 0;
    if (!reverse || !pair || !edge) return 0;
    if (!eqnn__reverses(g, reverse)) return 1;
    for (int e = 0; e < g->edges; e++) {
        int f = reverse[e];
        if (f < e && reverse[f] == e) {
            pair[e] = pair[f];
        } else {
            pair[e] = pairs;
            edge[pairs++] = e;
        }
    }
    g->pair_index = eqnn__graph_index(c, g->edges, pair, pairs, keep);
    g->pair_edge_index = eqnn__graph_index(c, pairs, edge, g->edges, keep);
    if (!g->pair_index || !g->pair_edge_index) return 0;
    g->pairs = pairs;
    g->pair = eqnn_ints_data(g->pair_index);
    g->pair_edge = eqnn_ints_data(g->pair_edge_index);
    return 1;
}

/* Cuts the nodes into the shortest runs that no edge leaves. A run ends where neither an edge into
   nor an edge out of its nodes leads further: the last of each list leads furthest, as they are
   sorted. */
static int eqnn__graph_blocks(eqnn_graph *g, int keep)
{
    if (g->sources != g->targets) return 1;
    int *block = eqnn__graph_room(g->ctx, (size_t)g->targets + 1, keep);
    if (!block) return 0;
    for (int i = 0, reach = -1; i < g->targets; i++) {
        int in = g->first[i + 1], out = g->first_by_source[i + 1];
        if (i > reach) block[g->blocks++] = reach = i;
        if (in > g->first[i] && g->source[in - 1] > reach) reach = g->source[in - 1];
        if (out > g->first_by_source[i] && g->target[g->by_source[out - 1]] > reach)
            reach = g->target[g->by_source[out - 1]];
    }
    block[g->blocks] = g->targets;
    g->block = block;
    return 1;
}

/* --- graphs from lists --- */

static eqnn_graph *eqnn__graph_build(eqnn_ctx *c, int edges, const int *source, const int *target,
                                     const eqnn_graph_opts *o)
{
    size_t at = c->step.at, used = c->step.used;
    eqnn_graph *g = (eqnn_graph *)(o->keep ? eqnn__keep_alloc(c, sizeof *g)
                                           : eqnn__step_alloc(c, sizeof *g));
    if (!g) return NULL;
    memset(g, 0, sizeof *g);
    g->ctx = c;
    g->sources = o->sources;
    g->targets = o->targets;
    g->edges = edges;
    g->examples = o->examples;
    if (!eqnn__graph_sort(g, source, target, o->keep)) return NULL;
    if (!eqnn__graph_examples(g, o->example, o->keep)) return NULL;
    if (o->shift && !eqnn__graph_shifts(g, o->shift, o->keep)) return NULL;
    if (!eqnn__graph_pairs(g, o->keep) || !eqnn__graph_blocks(g, o->keep)) return NULL;
    if (o->keep && !c->recycler) eqnn__arena_cut(&c->step, at, used); /* working memory only */
    return g;
}

/* The example array must be sorted and inside 0..examples-1. */
static int eqnn__example_check(eqnn_ctx *c, const char *op, eqnn_graph_opts *o)
{
    int n = o->targets;
    if (!o->example || !n) {
        if (o->examples < 0 || (n && o->examples > 1)) {
            eqnn__fail(c, "%s: %d examples but no array that says which a node belongs to", op,
                       o->examples);
            return 0;
        }
        if (!o->examples && !o->example) o->examples = 1;
        o->example = o->examples == 1 ? NULL : o->example;
        return 1;
    }
    for (int i = 0; i < n; i++)
        if (o->example[i] < (i ? o->example[i - 1] : 0)) {
            eqnn__fail(c, "%s: example[%d] = %d: examples must count up from 0", op, i,
                       o->example[i]);
            return 0;
        }
    if (!o->examples && o->example[n - 1] < INT_MAX) o->examples = o->example[n - 1] + 1;
    if (o->example[n - 1] >= o->examples) {
        eqnn__fail(c, "%s: example[%d] = %d of %d", op, n - 1, o->example[n - 1], o->examples);
        return 0;
    }
    return 1;
}

static int eqnn__edge_check(eqnn_ctx *c, int edges, const int *source, const int *target,
                            const eqnn_graph_opts *o)
{
    if (edges < 0 || o->sources < 0 || o->targets < 0 || (edges && (!source || !target))) {
        eqnn__fail(c, "graph_make: %d edges, %d sources, %d targets: not a graph", edges,
                   o->sources, o->targets);
        return 0;
    }
    if (edges && !o->targets) {
        eqnn__fail(c, "graph_make: %d edges but how many nodes? set .targets", edges);
        return 0;
    }
    for (int e = 0; e < edges; e++)
        if (source[e] < 0 || source[e] >= o->sources || target[e] < 0 || target[e] >= o->targets) {
            eqnn__fail(
                c, "graph_make: edge %d leads from %d to %d; there are %d sources and %d targets",
                e, source[e], target[e], o->sources, o->targets);
            return 0;
        }
    for (int e = 0; o->shift && e < 3 * (edges < INT_MAX / 3 ? edges : INT_MAX / 3); e++)
        if (!(fabs(o->shift[e]) <= DBL_MAX)) {
            eqnn__fail(c, "graph_make: the shift of edge %d is not finite", e / 3);
            return 0;
        }
    return 1;
}

EQNN_API const eqnn_graph *eqnn_graph_make(eqnn_ctx *c, int edges, const int *source,
                                           const int *target, const eqnn_graph_opts *opts)
{
    eqnn_graph_opts o;
    if (!c || c->failed) return NULL;
    c->op = "graph_make";
    memset(&o, 0, sizeof o);
    if (opts) o = *opts;
    if (!o.targets) o.targets = o.sources;
    if (!o.sources) o.sources = o.targets;
    if (!eqnn__edge_check(c, edges, source, target, &o)) return NULL;
    if (!eqnn__example_check(c, "graph_make", &o)) return NULL;
    return eqnn__graph_build(c, edges, source, target, &o);
}

/* --- who is near: a cell list --- */

/* A grid of cells at least as wide as the radius: neighbours sit in the same or an adjacent cell.
   Cells are numbered along x, then y, then z; the number is an atom's key. When there are not many
   more cells than atoms the key is the bucket, else the key is hashed, so that memory and time stay
   linear however far apart the atoms are. */
typedef struct eqnn__search {
    eqnn_ctx *ctx;
    const eqnn_real *pos;        /* [atoms, 3]                                      */
    double radius, r2;
    const double *x;             /* [points, 3]: the atoms, or their images         */
    const double *cell;          /* lattice vectors a row, when periodic; then ...  */
    const int *atom, *image;     /* [points], [points, 3] whose image a point is    */
    int home;                    /* the first points are the atoms themselves       */
    uint64_t cells[3];           /* along each axis                                 */
    int bits;                    /* of the hash; 0: a bucket for every cell         */
    int buckets;
    uint64_t *key;               /* [points]                                        */
    int *bucket, *first, *order; /* [points], [buckets+1], [points] by bucket       */
    int *pair;                   /* [pairs][width] found so far: i, j and the image */
    size_t width;                /* 5, or 2 when not periodic                       */
    size_t pairs, room, limit;
} eqnn__search;

/* Component k of the lattice vector n. */
static double eqnn__lattice(const double *cell, const int *n, int k)
{
    return n[0] * cell[k] + n[1] * cell[3 + k] + n[2] * cell[6 + k];
}

/* Differences are taken in the positions' own precision, as eqnn_edge_vectors does, and squared in
   double, so that nothing overflows; both directions agree to the last bit. */
static int eqnn__near(const eqnn__search *s, int i, int j, const int *n)
{
    const eqnn_real *a = s->pos + 3 * (size_t)i, *b = s->pos + 3 * (size_t)j;
    eqnn_real d[3];
    for (int k = 0; k < 3; k++) d[k] = b[k] - a[k];
    for (int k = 0; k < 3 && s->cell; k++) d[k] += (eqnn_real)eqnn__lattice(s->cell, n, k);
    double x = (double)d[0], y = (double)d[1], z = (double)d[2];
    return x * x + y * y + z * z < s->r2;
}

/* Keeps a pair: atom i and the image n of atom j. */
static int eqnn__pair_found(eqnn__search *s, int i, int j, const int *n)
{
    if (s->pairs == s->limit) {
        eqnn__fail(s->ctx, "radius_graph: too many edges within %g: more than %zu", s->radius,
                   2 * s->limit);
        return 0;
    }
    if (s->pairs == s->room) {
        size_t room = 2 * s->room + 256;
        int *grown = eqnn__graph_room(s->ctx, s->width * room, 0);
        if (!grown) return 0;
        if (s->pairs) memcpy(grown, s->pair, s->width * s->pairs * sizeof *grown);
        s->pair = grown;
        s->room = room;
    }
    int *p = s->pair + s->width * s->pairs++;
    p[0] = i, p[1] = j;
    if (s->cell) p[2] = n[0], p[3] = n[1], p[4] = n[2];
    return 1;
}

/* Looks at two points. Of the images of a pair each is kept once: seen from the smaller atom at
   home, and of an atom with itself only one of two opposite ones. 0 when memory runs out. */
static int eqnn__pair_test(eqnn__search *s, int p, int q)
{
    int n[3] = { 0, 0, 0 };
    if (!s->cell) return !eqnn__near(s, p, q, n) || eqnn__pair_found(s, p, q, n);
    int swap = p >= s->home || (q < s->home && s->atom[q] < s->atom[p]);
    int from = swap ? q : p, to = swap ? p : q, i = s->atom[from], j = s->atom[to];
    if (from >= s->home || j < i) return 1;
    for (int k = 0; k < 3; k++)
        n[k] = s->image[3 * (size_t)to + (size_t)k] - s->image[3 * (size_t)from + (size_t)k];
    if (i == j && (n[0] < 0 || (n[0] == 0 && (n[1] < 0 || (n[1] == 0 && n[2] < 0))))) return 1;
    return !eqnn__near(s, i, j, n) || eqnn__pair_found(s, i, j, n);
}

/* Few atoms, or all within reach: every pair. */
static int eqnn__search_all(eqnn__search *s, int from, int to)
{
    for (int i = from; i < to; i++)
        for (int j = from; j < i; j++)
            if (!eqnn__pair_test(s, i, j)) return 0;
    return 1;
}

static int eqnn__bucket(const eqnn__search *s, uint64_t key)
{
    if (!s->bits) return (int)key;
    return (int)((key * UINT64_C(0x9e3779b97f4a7c15)) >> (64 - s->bits));
}

/* Halves keep the extent finite. At most 2^20 cells along an axis: beyond, cells are wider. */
static void eqnn__search_keys(eqnn__search *s, int from, int to)
{
    double low[3], width[3];
    for (int k = 0; k < 3; k++) {
        double lo = DBL_MAX, hi = -DBL_MAX;
        for (int i = from; i < to; i++) {
            double v = 0.5 * s->x[3 * (size_t)i + (size_t)k];
            if (v < lo) lo = v;
            if (v > hi) hi = v;
        }
        low[k] = lo;
        width[k] = 0.5 * s->radius * (1 + 1e-6); /* more than any rounding */
        if ((hi - lo) / 1048576 > width[k]) width[k] = (hi - lo) / 1048576;
        s->cells[k] = (uint64_t)((hi - lo) / width[k]) + 1;
    }
    for (int i = from; i < to; i++) {
        uint64_t key = 0;
        for (int k = 2; k >= 0; k--) {
            double v = 0.5 * s->x[3 * (size_t)i + (size_t)k];
            uint64_t cell = (uint64_t)((v - low[k]) / width[k]);
            key = key * s->cells[k] + (cell < s->cells[k] ? cell : s->cells[k] - 1);
        }
        s->key[i] = key;
    }
}

/* At most 2 buckets an atom. */
static void eqnn__search_buckets(eqnn__search *s, int from, int to)
{
    int n = to - from;
    uint64_t cells = s->cells[0] * s->cells[1] * s->cells[2], most = 2 * (uint64_t)n;
    s->bits = 0;
    if (cells > most) {
        s->bits = 1;
        while ((uint64_t)2 << s->bits <= most) s->bits++;
    }
    s->buckets = s->bits ? 1 << s->bits : (int)cells;
    for (int i = from; i < to; i++) s->bucket[i - from] = eqnn__bucket(s, s->key[i]);
    eqnn__count_sort(n, NULL, s->bucket, s->buckets, s->first, s->order);
}

/* The pairs of atom i with those in the cell of that key; of its own cell only the smaller ones. */
static int eqnn__search_cell(eqnn__search *s, int from, int i, uint64_t key)
{
    int b = eqnn__bucket(s, key), own = key == s->key[i];
    for (int q = s->first[b]; q < s->first[b + 1]; q++) {
        int j = from + s->order[q];
        if (s->key[j] != key || (own && j >= i)) continue;
        if (!eqnn__pair_test(s, i, j)) return 0;
    }
    return 1;
}

/* Half of the 27 cells around an atom see each pair once: those of a larger key, and its own. */
static int eqnn__search_cells(eqnn__search *s, int from, int to)
{
    eqnn__search_keys(s, from, to);
    eqnn__search_buckets(s, from, to);
    uint64_t nx = s->cells[0], ny = s->cells[1], nz = s->cells[2];
    for (int q = 0; q < to - from; q++) {
        int i = from + s->order[q];
        uint64_t x = s->key[i] % nx, y = s->key[i] / nx % ny, z = s->key[i] / nx / ny;
        for (int d = 13; d < 27; d++) { /* 13 is the cell itself */
            uint64_t cx = x + (uint64_t)(d % 3) - 1, cy = y + (uint64_t)(d / 3 % 3) - 1;
            uint64_t cz = z + (uint64_t)(d / 9) - 1;
            if (cx >= nx || cy >= ny || cz >= nz) continue; /* -1 is large, too */
            if (!eqnn__search_cell(s, from, i, (cz * ny + cy) * nx + cx)) return 0;
        }
    }
    return 1;
}

static int eqnn__search_room(eqnn__search *s, int points)
{
    size_t n = (size_t)points;
    s->key = (uint64_t *)eqnn__step_alloc(s->ctx, (n ? n : 1) * sizeof *s->key);
    s->bucket = eqnn__graph_room(s->ctx, n, 0);
    s->order = eqnn__graph_room(s->ctx, n, 0);
    s->first = eqnn__graph_room(s->ctx, 2 * n + 2, 0);
    return s->key && s->bucket && s->order && s->first;
}

/* --- periodic examples --- */

/* The atoms of one example moved into the cell, and behind them all images within reach of the
 * cell. */
typedef struct eqnn__images {
    eqnn_ctx *ctx;
    const double *cell;
    double inverse[9]; /* fractions of the lattice vectors are x . inverse        */
    double reach[3];   /* the radius in those                                     */
    double *x;         /* [count, 3]                                              */
    int *atom, *image; /* [count], [count, 3] lattice vectors from the atom there */
    int count, room;
} eqnn__images;

/* Heights of the cell and the inverse of its matrix: columns a2 x a3, a3 x a1, a1 x a2 over the
 * volume. */
static int eqnn__cell_inverse(eqnn__images *m, double radius, int example)
{
    const double *a = m->cell;
    double volume = 0;
    for (int k = 0; k < 3; k++) {
        const double *b = a + 3 * ((k + 1) % 3), *c = a + 3 * ((k + 2) % 3);
        m->inverse[k] = b[1] * c[2] - b[2] * c[1];
        m->inverse[3 + k] = b[2] * c[0] - b[0] * c[2];
        m->inverse[6 + k] = b[0] * c[1] - b[1] * c[0];
    }
    for (int i = 0; i < 3; i++) volume += a[i] * m->inverse[3 * i];
    for (int i = 0; i < 9; i++) m->inverse[i] /= volume;
    for (int k = 0; k < 3; k++) {
        double x = m->inverse[k], y = m->inverse[3 + k], z = m->inverse[6 + k];
        m->reach[k] = radius * sqrt(x * x + y * y + z * z) * (1 + 1e-6) + 1e-9;
        if (!(fabs(volume) > 0) || !(m->reach[k] < 1000)) {
            eqnn__fail(
                m->ctx,
                "radius_graph: the cell of example %d has no volume, or the radius %g spans more "
                "than 1000 of them",
                example, radius);
            return 0;
        }
    }
    return 1;
}

static int eqnn__image_add(eqnn__images *m, const eqnn_real *pos, int atom, const int *n)
{
    if (m->count == m->room) {
        int room = m->room < INT_MAX / 8 ? 2 * m->room + 64 : 0;
        double *x = room ? (double *)eqnn__step_alloc(m->ctx, 3 * (size_t)room * sizeof *x) : NULL;
        int *list = x ? eqnn__graph_room(m->ctx, 4 * (size_t)room, 0) : NULL;
        if (!list) return eqnn__fail(m->ctx, "radius_graph: too many images") != NULL;
        if (m->count) {
            memcpy(x, m->x, 3 * (size_t)m->count * sizeof *x);
            memcpy(list, m->atom, (size_t)m->count * sizeof *list);
            memcpy(list + room, m->image, 3 * (size_t)m->count * sizeof *list);
        }
        m->x = x, m->atom = list, m->image = list + room, m->room = room;
    }
    m->atom[m->count] = atom;
    for (int k = 0; k < 3; k++) {
        m->image[3 * (size_t)m->count + (size_t)k] = n[k];
        m->x[3 * (size_t)m->count + (size_t)k] = (double)pos[3 * (size_t)atom + (size_t)k] +
                                                 eqnn__lattice(m->cell, n, k);
    }
    m->count++;
    return 1;
}

/* The first image of atom i at or above a fraction of each lattice vector, and where it is. */
static int eqnn__image_first(eqnn__images *m, const eqnn_real *pos, int i, const double low[3],
                             int n[3], double at[3])
{
    for (int k = 0; k < 3; k++) {
        double f = 0;
        for (int c = 0; c < 3; c++)
            f += (double)pos[3 * (size_t)i + (size_t)c] * m->inverse[3 * c + k];
        double steps = ceil(low[k] - f);
        if (!(fabs(steps) < 1e8)) {
            eqnn__fail(m->ctx, "radius_graph: row %d of the positions lies too many cells away", i);
            return 0;
        }
        n[k] = (int)steps;
        at[k] = f + steps;
    }
    return 1;
}

/* All images of atom i from -reach to 1 + reach but the one at home, which was listed before. */
static int eqnn__image_around(eqnn__images *m, const eqnn_real *pos, int i, const int *home)
{
    double low[3], at[3];
    int n[3], q[3];
    for (int k = 0; k < 3; k++) low[k] = -m->reach[k];
    if (!eqnn__image_first(m, pos, i, low, n, at)) return 0;
    for (q[0] = n[0]; at[0] + (q[0] - n[0]) <= 1 + m->reach[0]; q[0]++)
        for (q[1] = n[1]; at[1] + (q[1] - n[1]) <= 1 + m->reach[1]; q[1]++)
            for (q[2] = n[2]; at[2] + (q[2] - n[2]) <= 1 + m->reach[2]; q[2]++) {
                if (q[0] == home[0] && q[1] == home[1] && q[2] == home[2]) continue;
                if (!eqnn__image_add(m, pos, i, q)) return 0;
            }
    return 1;
}

static int eqnn__search_periodic(eqnn__search *s, const double *cell, int example, int from, int to)
{
    const double zero[3] = { 0, 0, 0 };
    double at[3];
    int n[3];
    eqnn__images m;
    memset(&m, 0, sizeof m);
    m.ctx = s->ctx;
    m.cell = cell;
    if (!eqnn__cell_inverse(&m, s->radius, example)) return 0;
    double many = (1 + 2 * m.reach[0]) * (1 + 2 * m.reach[1]) * (1 + 2 * m.reach[2]) * (to - from);
    if (many > 1e8)
        return eqnn__fail(s->ctx, "radius_graph: the radius reaches %.0e images", many) != NULL;
    for (int i = from; i < to; i++)
        if (!eqnn__image_first(&m, s->pos, i, zero, n, at) || !eqnn__image_add(&m, s->pos, i, n))
            return 0;
    for (int i = from; i < to; i++)
        if (!eqnn__image_around(&m, s->pos, i, m.image + 3 * (size_t)(i - from))) return 0;
    s->x = m.x;
    s->cell = cell;
    s->atom = m.atom;
    s->image = m.image;
    s->home = to - from;
    return eqnn__search_room(s, m.count) && eqnn__search_cells(s, 0, m.count);
}

/* Example by example, so that no pair crosses from one to another. */
static int eqnn__search_examples(eqnn__search *s, const eqnn_graph_opts *o)
{
    if (!o->cell && !eqnn__search_room(s, o->targets)) return 0;
    for (int from = 0, to; from < o->targets; from = to) {
        int example = o->example ? o->example[from] : 0;
        for (to = from + 1; to < o->targets; to++)
            if (o->example && o->example[to] != example) break;
        if (o->cell) {
            if (!eqnn__search_periodic(s, o->cell + 9 * (size_t)example, example, from, to))
                return 0;
            continue;
        }
        int all = to - from <= 32 || !(s->radius <= DBL_MAX);
        if (!(all ? eqnn__search_all(s, from, to) : eqnn__search_cells(s, from, to))) return 0;
    }
    return 1;
}

/* Both directions of every pair, and loops where asked for. The shift leads the source to its
 * image. */
static eqnn_graph *eqnn__graph_of_pairs(const eqnn__search *s, const eqnn_graph_opts *opts)
{
    eqnn_graph_opts o = *opts;
    size_t loops = o.loops ? (size_t)o.targets : 0, edges = 2 * s->pairs + loops;
    int *source = eqnn__graph_room(s->ctx, 2 * edges, 0);
    double *shift = o.cell ? (double *)eqnn__step_alloc(s->ctx, (3 * edges + 1) * sizeof *shift)
                           : NULL;
    if (!source || (o.cell && !shift)) return NULL;
    int *target = source + edges;
    for (size_t p = 0; p < s->pairs; p++) {
        const int *f = s->pair + s->width * p;
        source[2 * p] = target[2 * p + 1] = f[1];
        source[2 * p + 1] = target[2 * p] = f[0];
        for (int k = 0; k < 3 && shift; k++) {
            const double *cell = o.cell + 9 * (size_t)(o.example ? o.example[f[0]] : 0);
            shift[6 * p + (size_t)k] = eqnn__lattice(cell, f + 2, k);
            shift[6 * p + 3 + (size_t)k] = -shift[6 * p + (size_t)k];
        }
    }
    for (size_t i = 0; i < loops; i++) source[2 * s->pairs + i] = target[2 * s->pairs + i] = (int)i;
    for (size_t i = 0; i < 3 * loops && shift; i++) shift[6 * s->pairs + i] = 0;
    o.shift = shift;
    return eqnn__graph_build(s->ctx, (int)edges, source, target, &o);
}

/* The numbers of pos, all finite, twice: as they are and in double. 0 and an error otherwise. */
static int eqnn__positions(eqnn__search *s, eqnn_tensor *pos)
{
    size_t n = 3 * (size_t)eqnn_rows(pos);
    eqnn_real *x = (eqnn_real *)eqnn__step_alloc(s->ctx, (n + 1) * sizeof *x);
    double *wide = (double *)eqnn__step_alloc(s->ctx, (n + 1) * sizeof *wide);
    if (!x || !wide || (n && !eqnn_read(pos, x))) return 0;
    for (size_t i = 0; i < n; i++) {
        wide[i] = (double)x[i];
        if (fabs(wide[i]) <= DBL_MAX) continue;
        size_t row = i / 3;
        eqnn__fail(s->ctx, "radius_graph: row %zu of the positions is not finite (%g, %g, %g)", row,
                   (double)x[3 * row], (double)x[3 * row + 1], (double)x[3 * row + 2]);
        return 0;
    }
    s->pos = x;
    s->x = wide;
    return 1;
}

static int eqnn__radius_check(eqnn_tensor *pos, double radius, eqnn_graph_opts *o)
{
    eqnn_ctx *c = pos->ctx;
    int n = eqnn_rows(pos);
    if (eqnn_cols(pos) != 3 || (o->sources && o->sources != n) || (o->targets && o->targets != n)) {
        eqnn__fail(c,
                   "radius_graph: positions [%d,%d] for %d sources and %d targets; it needs [n,3]",
                   n, eqnn_cols(pos), o->sources, o->targets);
        return 0;
    }
    if (!(radius > 0) || o->shift) {
        eqnn__fail(c, "radius_graph: radius %g%s", radius,
                   o->shift ? "; shifts are for graph_make" : " is not positive");
        return 0;
    }
    o->sources = o->targets = n;
    return eqnn__example_check(c, "radius_graph", o);
}

EQNN_API const eqnn_graph *eqnn_radius_graph(eqnn_tensor *pos, double radius,
                                             const eqnn_graph_opts *opts)
{
    eqnn_graph_opts o;
    eqnn__search s;
    if (eqnn__bad(pos, "radius_graph")) return NULL;
    pos->ctx->op = "radius_graph";
    memset(&o, 0, sizeof o);
    if (opts) o = *opts;
    if (!eqnn__radius_check(pos, radius, &o)) return NULL;
    memset(&s, 0, sizeof s);
    s.ctx = pos->ctx;
    s.width = o.cell ? 5 : 2;
    s.radius = (double)(eqnn_real)radius; /* a distance of 0.7f is not below a radius of 0.7 */
    s.r2 = s.radius * s.radius;
    int most = o.max_edges > 0 ? o.max_edges : INT_MAX, loops = o.loops ? o.targets : 0;
    s.limit = most > loops ? (size_t)(most - loops) / 2 : 0;
    if (!eqnn__positions(&s, pos) || !eqnn__search_examples(&s, &o)) return NULL;
    return eqnn__graph_of_pairs(&s, &o);
}

/* --- who is nearest: a tree --- */

/* The sources of each example in a k-d tree (Bentley 1975, doi:10.1145/361002.361007). A run of the
   list is split by the point at its middle, along the axis in which the run is longest: what stands
   before it is not larger there, what stands behind it not smaller. The halves are equal however
   the points lie, so the depth is log2 n even when all coincide. What has been found for a target
   is a heap, the worst on top: largest distance, then largest index. */
enum { EQNN__LEAF = 8 }; /* runs of so many points are not split */
typedef struct eqnn__nearest {
    int k, cols, targets, same;       /* same: sources are the targets, none is its own neighbour */
    const eqnn_real *source, *target; /* [.., cols]                                               */
    const int *example, *start;       /* [targets] or NULL; [examples+1] runs of the sources      */
    int *list;                        /* [sources] the trees                                      */
    int *axis, *least;                /* [sources] along which axis the point at that place splits
                                         its run, and the smallest index in the run               */
    const int *first;                 /* [targets+1] where a target's edges are                   */
    int *found;                       /* [edges] sources                                          */
    double *d2;                       /* [edges] their squared distances                          */
} eqnn__nearest;

/* Differences in the positions' own precision, squared in double: nothing overflows. */
static double eqnn__distance2(const eqnn_real *a, const eqnn_real *b, int n)
{
    double sum = 0;
    for (int k = 0; k < n; k++) {
        double d = (double)(eqnn_real)(a[k] - b[k]);
        sum += d * d;
    }
    return sum;
}

static const eqnn_real *eqnn__nearest_point(const eqnn__nearest *s, int place)
{
    return s->source + (size_t)s->list[place] * (size_t)s->cols;
}

/* The axis along which the points from..to-1 of the list reach furthest. */
static int eqnn__nearest_axis(const eqnn__nearest *s, int from, int to)
{
    double longest = -1;
    int axis = 0;
    for (int k = 0; k < s->cols; k++) {
        double low = DBL_MAX, high = -DBL_MAX;
        for (int i = from; i < to; i++) {
            double v = 0.5 * (double)eqnn__nearest_point(s, i)[k];
            if (v < low) low = v;
            if (v > high) high = v;
        }
        if (high - low > longest) {
            longest = high - low;
            axis = k;
        }
    }
    return axis;
}

/* Reorders the list from..to-1 so that the point at the middle is where sorting would put it (Hoare
   1961, doi:10.1145/366622.366647). Scans stop at equals, so that many of them do no harm. */
static void eqnn__nearest_select(eqnn__nearest *s, int from, int to, int middle, int axis)
{
    int low = from, high = to - 1;
    while (low < high) {
        eqnn_real pivot = eqnn__nearest_point(s, low + (high - low) / 2)[axis];
        int i = low, j = high;
        while (i <= j) {
            while (eqnn__nearest_point(s, i)[axis] < pivot) i++;
            while (pivot < eqnn__nearest_point(s, j)[axis]) j--;
            if (i > j) break;
            int swap = s->list[i];
            s->list[i++] = s->list[j];
            s->list[j--] = swap;
        }
        if (middle <= j) high = j;
        else if (middle >= i) low = i;
        else break;
    }
}

static void eqnn__nearest_split(eqnn__nearest *s, int from, int to)
{
    while (to - from > EQNN__LEAF) {
        int middle = from + (to - from) / 2, axis = eqnn__nearest_axis(s, from, to);
        eqnn__nearest_select(s, from, to, middle, axis);
        s->axis[middle] = axis;
        s->least[middle] = s->list[middle];
        for (int i = from; i < to; i++)
            if (s->list[i] < s->least[middle]) s->least[middle] = s->list[i];
        eqnn__nearest_split(s, from, middle);
        from = middle + 1;
    }
}

/* A target's search: its heap of count of at most k sources. */
typedef struct eqnn__nearest_heap {
    int target, k, count;
    const eqnn_real *at;
    int *found;
    double *d2;
} eqnn__nearest_heap;

static int eqnn__nearer(double a2, int a, double b2, int b)
{
    return a2 < b2 || (a2 == b2 && a < b);
}

/* Puts a source at a place of the heap and moves it up or down to where it belongs. */
static void eqnn__nearest_put(eqnn__nearest_heap *h, int place, double d2, int source)
{
    int up = (place - 1) / 2;
    while (place > 0 && eqnn__nearer(h->d2[up], h->found[up], d2, source)) {
        h->d2[place] = h->d2[up];
        h->found[place] = h->found[up];
        place = up;
        up = (place - 1) / 2;
    }
    for (int down = 2 * place + 1; down < h->count; down = 2 * place + 1) {
        if (down + 1 < h->count && eqnn__nearer(h->d2[down], h->found[down], h->d2[down + 1],
                                                h->found[down + 1]))
            down++;
        if (!eqnn__nearer(d2, source, h->d2[down], h->found[down])) break;
        h->d2[place] = h->d2[down];
        h->found[place] = h->found[down];
        place = down;
    }
    h->d2[place] = d2;
    h->found[place] = source;
}

static void eqnn__nearest_offer(const eqnn__nearest *s, eqnn__nearest_heap *h, int place)
{
    int source = s->list[place];
    double d2 = eqnn__distance2(h->at, eqnn__nearest_point(s, place), s->cols);
    if (s->same && source == h->target) return;
    if (h->count < h->k) {
        h->count++;
        eqnn__nearest_put(h, h->count - 1, d2, source);
    } else if (eqnn__nearer(d2, source, h->d2[0], h->found[0])) {
        eqnn__nearest_put(h, 0, d2, source);
    }
}

/* May a run at a squared distance of d2 or more hold something better than the worst of the heap?
   Among points just as far away (thousands may coincide) the smallest index decides. */
static int eqnn__nearest_may(const eqnn__nearest *s, const eqnn__nearest_heap *h, double d2,
                             int from, int to)
{
    int least = to - from > EQNN__LEAF ? s->least[from + (to - from) / 2] : -1;
    return h->count < h->k || eqnn__nearer(d2, least, h->d2[0], h->found[0]);
}

/* The nearer half first; no point of the other is nearer than the splitting plane, as all
   differences are rounded alike. */
static void eqnn__nearest_visit(const eqnn__nearest *s, eqnn__nearest_heap *h, int from, int to)
{
    while (to - from > EQNN__LEAF) {
        int middle = from + (to - from) / 2, axis = s->axis[middle];
        double d = (double)(eqnn_real)(h->at[axis] - eqnn__nearest_point(s, middle)[axis]);
        eqnn__nearest_visit(s, h, d < 0 ? from : middle + 1, d < 0 ? middle : to);
        eqnn__nearest_offer(s, h, middle);
        if (d < 0) from = middle + 1;
        else to = middle;
        if (!eqnn__nearest_may(s, h, d * d, from, to)) return;
    }
    for (int i = from; i < to; i++) eqnn__nearest_offer(s, h, i);
}

enum { EQNN__NEAREST_BLOCK = 64 }; /* targets of a task */
static void eqnn__nearest_block(const void *job, size_t block, int thread)
{
    const eqnn__nearest *s = (const eqnn__nearest *)job;
    size_t t = block * EQNN__NEAREST_BLOCK, last = t + EQNN__NEAREST_BLOCK;
    if (last > (size_t)s->targets) last = (size_t)s->targets;
    (void)thread;
    for (; t < last; t++) {
        int e = s->example ? s->example[t] : 0, first = s->first[t];
        eqnn__nearest_heap h = {(int)t,           s->first[t + 1] - first,
                                0,                s->target + t * (size_t)s->cols,
                                s->found + first, s->d2 + first};
        if (h.k > 0) eqnn__nearest_visit(s, &h, s->start[e], s->start[e + 1]);
    }
}

/* Where the items of each example begin, [examples+1]; without an array all are of one. */
static int *eqnn__example_runs(eqnn_ctx *c, int n, const int *example, int examples)
{
    int *start = eqnn__graph_room(c, (size_t)examples + 2, 0);
    if (!start) return NULL;
    start[0] = 0;
    int i = 0;
    for (size_t e = 1; e <= (size_t)examples || e == 1; e++) {
        while (i < n && (!example || example[i] < (int)e)) i++;
        start[e] = i;
    }
    return start;
}

/* So many edges are allowed? */
static int eqnn__edges_fit(eqnn_ctx *c, const char *op, double edges, const eqnn_graph_opts *o)
{
    double most = o->max_edges > 0 ? o->max_edges : INT_MAX;
    if (edges <= most) return 1;
    return eqnn__fail(c, "%s: too many edges: %.0f, at most %.0f are allowed", op, edges,
                      most) != NULL;
}

/* Room for the edges: k for each target, or as many as there are. */
static int eqnn__nearest_room(eqnn_ctx *c, const char *op, eqnn__nearest *s,
                              const eqnn_graph_opts *o)
{
    int *first = eqnn__graph_room(c, (size_t)s->targets + 1, 0);
    double edges = 0;
    if (!first) return 0;
    for (int t = 0; t <= s->targets; t++) {
        first[t] = edges < INT_MAX ? (int)edges : INT_MAX;
        if (t == s->targets) break;
        int e = s->example ? s->example[t] : 0, there = s->start[e + 1] - s->start[e] - s->same;
        edges += there < s->k ? there : s->k;
    }
    double loops = o->loops ? s->targets : 0;
    if (!eqnn__edges_fit(c, op, edges + loops, o)) return 0;
    s->first = first;
    s->found = eqnn__graph_room(c, 2 * (size_t)(edges + loops), 0); /* sources, then targets */
    s->d2 = (double *)eqnn__step_alloc(c, ((size_t)edges + 1) * sizeof *s->d2);
    s->list = eqnn__graph_room(c, (size_t)o->sources, 0);
    s->axis = eqnn__graph_room(c, (size_t)o->sources, 0);
    s->least = eqnn__graph_room(c, (size_t)o->sources, 0);
    return s->found && s->d2 && s->list && s->axis && s->least;
}

/* source_examples: of the sources in their order, or NULL. */
static const eqnn_graph *eqnn__nearest_graph(eqnn_ctx *c, const char *op, eqnn__nearest *s,
                                             const int *source_example, const eqnn_graph_opts *o)
{
    s->targets = o->targets;
    s->example = o->example;
    s->start = eqnn__example_runs(c, o->sources, source_example, o->examples);
    if (!s->start || !eqnn__nearest_room(c, op, s, o)) return NULL;
    int edges = s->first[s->targets], total = edges + (o->loops ? o->targets : 0);
    int *target = s->found + total, runs = source_example ? o->examples : 1;
    for (int i = 0; i < o->sources; i++) s->list[i] = i;
    for (int e = 0; e < runs; e++) eqnn__nearest_split(s, s->start[e], s->start[e + 1]);
    eqnn__parallel(&c->device, ((size_t)s->targets + EQNN__NEAREST_BLOCK - 1) / EQNN__NEAREST_BLOCK,
                   eqnn__nearest_block, s);
    for (int t = 0; t < s->targets; t++)
        for (int e = s->first[t]; e < s->first[t + 1]; e++) target[e] = t;
    for (int e = edges; e < total; e++) s->found[e] = target[e] = e - edges;
    return eqnn__graph_build(c, total, s->found, target, o);
}

/* The numbers of x, all finite. */
static const eqnn_real *eqnn__points(eqnn_tensor *x, const char *op, const char *whose)
{
    size_t cols = (size_t)eqnn_cols(x), n = (size_t)eqnn_rows(x) * cols;
    eqnn_real *v = (eqnn_real *)eqnn__step_alloc(x->ctx, (n + 1) * sizeof *v);
    if (!v || (n && !eqnn_read(x, v))) return NULL;
    for (size_t i = 0; i < n; i++)
        if (!(fabs((double)v[i]) <= DBL_MAX)) {
            eqnn__fail(x->ctx, "%s: row %zu of the %spositions is not finite (column %zu: %g)", op,
                       i / cols, whose, i % cols, (double)v[i]);
            return NULL;
        }
    return v;
}

/* Options for a graph of so many nodes; what these graphs do not have is refused. */
static int eqnn__graph_start(eqnn_ctx *c, const char *op, int sources, int targets,
                             const eqnn_graph_opts *opts, eqnn_graph_opts *o)
{
    memset(o, 0, sizeof *o);
    if (opts) *o = *opts;
    c->op = op;
    if ((o->sources && o->sources != sources) || (o->targets && o->targets != targets)) {
        eqnn__fail(c, "%s: %d sources and %d targets; the options say %d and %d", op, sources,
                   targets, o->sources, o->targets);
        return 0;
    }
    if (o->cell || o->shift)
        return eqnn__fail(c, "%s: cells are for eqnn_radius_graph, shifts for eqnn_graph_make",
                          op) != NULL;
    o->sources = sources;
    o->targets = targets;
    return 1;
}

static int eqnn__k_fits(eqnn_ctx *c, const char *op, int k, int cols)
{
    if (k > 0 && cols > 0) return 1;
    return eqnn__fail(c, "%s: the %d nearest of points with %d columns; both must be positive", op,
                      k, cols) != NULL;
}

EQNN_API const eqnn_graph *eqnn_knn_graph(eqnn_tensor *pos, int k, const eqnn_graph_opts *opts)
{
    const char *op = "knn_graph";
    eqnn_graph_opts o;
    eqnn__nearest s;
    if (eqnn__bad(pos, op)) return NULL;
    eqnn_ctx *c = pos->ctx;
    if (!eqnn__k_fits(c, op, k, eqnn_cols(pos)) ||
        !eqnn__graph_start(c, op, eqnn_rows(pos), eqnn_rows(pos), opts, &o) ||
        !eqnn__example_check(c, op, &o))
        return NULL;
    memset(&s, 0, sizeof s);
    s.k = k;
    s.cols = eqnn_cols(pos);
    s.same = 1;
    s.source = s.target = eqnn__points(pos, op, "");
    return s.source ? eqnn__nearest_graph(c, op, &s, o.example, &o) : NULL;
}

EQNN_API const eqnn_graph *eqnn_knn_between(eqnn_tensor *source_pos, eqnn_tensor *target_pos, int k,
                                            const eqnn_graph_opts *opts)
{
    const char *op = "knn_between";
    eqnn_graph_opts o, sources;
    eqnn__nearest s;
    if (eqnn__bad2(source_pos, target_pos, op)) return NULL;
    eqnn_ctx *c = source_pos->ctx;
    int n = eqnn_rows(source_pos), cols = eqnn_cols(source_pos);
    if (cols != eqnn_cols(target_pos) || (opts && opts->loops)) {
        eqnn__fail(c, "%s: sources [%d,%d] and targets [%d,%d]%s", op, n, cols,
                   eqnn_rows(target_pos), eqnn_cols(target_pos),
                   cols != eqnn_cols(target_pos) ? ": equally many columns are needed"
                                                 : " have no loops: they are different things");
        return NULL;
    }
    if (!eqnn__k_fits(c, op, k, cols) ||
        !eqnn__graph_start(c, op, n, eqnn_rows(target_pos), opts, &o))
        return NULL;
    if (!o.examples && o.example && o.source_example && n && o.source_example[n - 1] < INT_MAX) {
        int last = o.targets ? o.example[o.targets - 1] : 0, other = o.source_example[n - 1];
        if (last < INT_MAX) o.examples = (other > last ? other : last) + 1;
    }
    if (!eqnn__example_check(c, op, &o)) return NULL;
    sources = o;
    sources.targets = n;
    sources.example = o.source_example;
    if (!eqnn__example_check(c, "knn_between, sources", &sources)) return NULL;
    memset(&s, 0, sizeof s);
    s.k = k;
    s.cols = cols;
    s.source = eqnn__points(source_pos, op, "sources' ");
    s.target = s.source ? eqnn__points(target_pos, op, "targets' ") : NULL;
    return s.target ? eqnn__nearest_graph(c, op, &s, sources.example, &o) : NULL;
}

EQNN_API const eqnn_graph *eqnn_complete_graph(eqnn_ctx *c, int nodes, const eqnn_graph_opts *opts)
{
    const char *op = "complete_graph";
    eqnn_graph_opts o;
    double edges = 0;
    if (!c || c->failed || !eqnn__graph_start(c, op, nodes, nodes, opts, &o)) return NULL;
    if (nodes < 0) eqnn__fail(c, "%s: %d nodes", op, nodes);
    if (c->failed || !eqnn__example_check(c, op, &o)) return NULL;
    int *start = eqnn__example_runs(c, nodes, o.example, o.examples);
    int runs = o.example ? o.examples : 1, n = 0;
    for (int e = 0; start && e < runs; e++) {
        double size = start[e + 1] - start[e];
        edges += size * (o.loops ? size : size - 1);
    }
    if (!start || !eqnn__edges_fit(c, op, edges, &o)) return NULL;
    int *source = eqnn__graph_room(c, 2 * (size_t)edges, 0);
    int *target = source ? source + (size_t)edges : NULL;
    if (!source) return NULL;
    for (int e = 0; e < runs; e++)
        for (int t = start[e]; t < start[e + 1]; t++)
            for (int s = start[e]; s < start[e + 1]; s++) {
                if (s == t && !o.loops) continue;
                source[n] = s;
                target[n++] = t;
            }
    return eqnn__graph_build(c, n, source, target, &o);
}

/* --- messages --- */

/* Is x a tensor with a row for each of what: n of them in the graph? */
static int eqnn__graph_bad(const eqnn_tensor *x, const eqnn_graph *g, const char *op,
                           const char *what)
{
    if (eqnn__bad(x, op)) return 1;
    if (!g) {
        eqnn__fail(x->ctx, "%s: there is no graph", op);
        return 1;
    }
    int n = what[0] == 'e' ? g->edges : what[0] == 's' ? g->sources : g->targets;
    if (x->rows != n) {
        eqnn__fail(x->ctx, "%s: [%d,%d] for a graph of %d %s", op, x->rows, x->cols, n, what);
        return 1;
    }
    return 0;
}

EQNN_API eqnn_tensor *eqnn_gather(eqnn_tensor *x, const eqnn_graph *g)
{
    if (eqnn__graph_bad(x, g, "gather", "sources")) return NULL;
    return eqnn_take(x, g->source_index);
}

EQNN_API eqnn_tensor *eqnn_gather_target(eqnn_tensor *x, const eqnn_graph *g)
{
    if (eqnn__graph_bad(x, g, "gather_target", "targets")) return NULL;
    return eqnn_take(x, g->target_index);
}

EQNN_API eqnn_tensor *eqnn_scatter(eqnn_tensor *x, const eqnn_graph *g)
{
    if (eqnn__graph_bad(x, g, "scatter", "edges")) return NULL;
    return eqnn_collect(x, g->target_index);
}

EQNN_API eqnn_tensor *eqnn_scatter_mean(eqnn_tensor *x, const eqnn_graph *g)
{
    return eqnn_mul(eqnn_scatter(x, g), eqnn_inverse_degree(g));
}

EQNN_API eqnn_tensor *eqnn_inverse_degree(const eqnn_graph *g)
{
    if (!g || g->ctx->failed) return NULL;
    size_t n = (size_t)g->targets;
    eqnn_real *v = (eqnn_real *)eqnn__step_alloc(g->ctx, (n ? n : 1) * sizeof *v);
    if (!v) return NULL;
    for (size_t i = 0; i < n; i++) {
        int degree = g->first[i + 1] - g->first[i];
        v[i] = (eqnn_real)(1.0 / (degree > 1 ? degree : 1));
    }
    return eqnn_from(g->ctx, g->targets, 1, v);
}

/* softmax over the edges that enter a node, column by column */
EQNN_API eqnn_tensor *eqnn_edge_softmax(eqnn_tensor *x, const eqnn_graph *g)
{
    if (eqnn__graph_bad(x, g, "edge_softmax", "edges")) return NULL;
    return eqnn_segment_softmax(x, g->target_index);
}

/* r = pos[source] + shift - pos[target] */
EQNN_API eqnn_tensor *eqnn_edge_vectors(eqnn_tensor *pos, const eqnn_graph *g)
{
    if (eqnn__graph_bad(pos, g, "edge_vectors", "sources")) return NULL;
    if (g->sources != g->targets || pos->cols != 3)
        return eqnn__fail(pos->ctx,
                          "edge_vectors: positions [%d,%d] for %d sources and %d targets; "
                          "both are the same nodes and need [nodes,3]",
                          pos->rows, pos->cols, g->sources, g->targets);
    const eqnn_irreps *vector = eqnn_irreps_make(pos->ctx, "1x1o");
    eqnn_tensor *p = eqnn_as(pos, vector);
    eqnn_tensor *from = eqnn_take(p, g->source_index), *to = eqnn_take(p, g->target_index);
    eqnn_tensor *r = eqnn_sub(from, to);
    if (!g->shift) return r;
    return eqnn_add(r, eqnn_as(eqnn_from(pos->ctx, g->edges, 3, g->shift), vector));
}

/* --- whole examples --- */

EQNN_API eqnn_tensor *eqnn_pool_sum(eqnn_tensor *x, const eqnn_graph *g)
{
    if (eqnn__graph_bad(x, g, "pool_sum", "targets")) return NULL;
    return eqnn_segment_sum(x, g->example_index);
}

EQNN_API eqnn_tensor *eqnn_pool_mean(eqnn_tensor *x, const eqnn_graph *g)
{
    if (eqnn__graph_bad(x, g, "pool_mean", "targets")) return NULL;
    return eqnn_segment_mean(x, g->example_index);
}

#ifdef EQNN__QUICK
#pragma GCC push_options
#pragma GCC optimize("Og")
#endif

/* ----------------------------------------------------------------------------------------------
   13 >>models
   ---------------------------------------------------------------------------------------------- */

/* Features without a label are invariant numbers. */
static eqnn_tensor *eqnn__with_label(eqnn_tensor *x)
{
    if (!x || eqnn_label_of(x)) return x;
    int block[1][3] = { { 0, 0, 1 } };
    block[0][0] = eqnn_cols(x);
    return eqnn_as(x, eqnn_irreps_blocks(x->ctx, (const int (*)[3])block, 1));
}

/* --- gate_points_2101: convolution --- */

static void eqnn__conv_defaults(eqnn_conv_opts *o, const eqnn_conv_opts *opts)
{
    memset(o, 0, sizeof *o);
    if (opts) *o = *opts;
    if (o->radial_layers <= 0) o->radial_layers = 1;
    if (o->radial_neurons <= 0) o->radial_neurons = 64;
    if (!(o->neighbours > 0)) o->neighbours = 1;
}

/* A linear map whose weights may depend on the node's attributes z: e3nn's product of x with z,
   which is a plain linear map with the same weights and the same normalisation when z is one
   number, 1. */
static eqnn_tensor *eqnn__node_map(eqnn_tensor *x, eqnn_tensor *z, const char *name,
                                   const eqnn_irreps *out)
{
    if (!x || !out) return NULL;
    if (!z) return eqnn_irreps_linear(x, name, out->name, NULL);
    return eqnn_fully_connected(x, z, name, out->name, NULL);
}

/* The radial network (e3nn's FullyConnectedNet "fc") as the message form takes it: the hidden
   features and, in *V, the matrix of the last layer, which is multiplied in tile by tile. Dividing
   the sum over neighbours by the square root of their number costs nothing there. */
static eqnn_tensor *eqnn__radial(eqnn_tensor *b, int weights, const eqnn_conv_opts *o,
                                 eqnn_tensor **V)
{
    char widths[512];
    eqnn_fc_opts f, given;
    if (!eqnn__invariant(b->label))
        return eqnn__fail(b->ctx, "conv: the radial network cannot see %s", b->label->name);
    memset(&given, 0, sizeof given);
    given.variance_out = 1 / o->neighbours;
    given.exact = o->exact;
    eqnn__fc_defaults(&f, &given);
    int at = 0;
    for (int k = 0; k < o->radial_layers && at < 480; k++)
        at += snprintf(widths + at, sizeof widths - (size_t)at, "%d,", o->radial_neurons);
    if (at >= 480)
        return eqnn__fail(b->ctx, "conv: %d radial layers are too many", o->radial_layers);
    snprintf(widths + at, sizeof widths - (size_t)at, "%d", weights);
    b = eqnn_enter(eqnn__bare(b), "fc");
    return eqnn_leave(b ? eqnn__fc_split(b, widths, &f, V) : NULL);
}

/* Equal irreps of the middle label may be merged when the last map's weights keep their order: one
   block of attributes without directions, and every irrep at most once in the output. */
static int eqnn__may_merge(const eqnn_tensor *z, const eqnn_irreps *out)
{
    const eqnn_irreps *a = z ? z->label : NULL;
    if (a && (a->blocks != 1 || a->block[0].type->l != 0)) return 0;
    for (int i = 0; i < out->blocks; i++)
        for (int j = 0; j < i; j++)
            if (out->block[i].type == out->block[j].type) return 0;
    return 1;
}

/* 1 where the self-connection reaches a block of the output, else 0. */
static int eqnn__self_reaches(const eqnn_tensor *x, const eqnn_tensor *z, const eqnn_irreps *out,
                              int block)
{
    const eqnn_type *t = out->block[block].type;
    if (!z) return eqnn_irreps_count(x->label, t->l, t->p) > 0;
    const eqnn_product *p = eqnn_product_full(x->ctx, x->label, z->label, out, NULL);
    return p && eqnn_product_reaches(p, block);
}

/* y = sin(pi/8) s + c h with c = cos(pi/8), but 1 for columns that s does not reach: the message
   cannot share their variance with anything. */
static eqnn_tensor *eqnn__conv_join(eqnn_tensor *s, eqnn_tensor *h, const eqnn_tensor *x,
                                    const eqnn_tensor *z)
{
    if (!s || !h) return NULL;
    const eqnn_irreps *out = h->label;
    eqnn_ctx *c = h->ctx;
    double cosine = eqnn__sin_quarter(EQNN__PI / 8, 1);
    int all = 1;
    double *factor = (double *)eqnn__step_alloc(c, ((size_t)out->copies + 1) * sizeof *factor);
    if (!factor) return NULL;
    for (int b = 0, at = 0; b < out->blocks; b++) {
        int reached = eqnn__self_reaches(x, z, out, b);
        if (!reached) all = 0;
        for (int u = 0; u < out->block[b].copies; u++) factor[at++] = reached ? cosine : 1;
    }
    eqnn_tensor *ch = all ? eqnn_scale(h, cosine)
                          : eqnn_scale_copies(h, eqnn_from_double(c, 1, out->copies, factor));
    return eqnn_add(eqnn_scale(s, sin(EQNN__PI / 8)), ch);
}

/* A number of each node by a linear map whose weights begin at 0. */
static eqnn_tensor *eqnn__zero_map(eqnn_tensor *x, eqnn_tensor *z, const char *name)
{
    eqnn_init zeros;
    memset(&zeros, 0, sizeof zeros);
    zeros.kind = EQNN_INIT_ZEROS;
    x = eqnn_enter(x, name);
    const eqnn_irreps *one = x ? eqnn_irreps_make(x->ctx, "1x0e") : NULL;
    if (!one) return NULL;
    const eqnn_product *p = z ? eqnn_product_full(x->ctx, x->label, z->label, one, NULL) : NULL;
    int n = z ? p ? eqnn_product_weights(p) : 0 : eqnn_irreps_map_weights(x->label, one, NULL);
    if (n == 0)
        return eqnn__fail(x->ctx, "conv: no product of features and edge attributes is invariant");
    eqnn_tensor *w = eqnn_param(x->ctx, "weight", 1, n, &zeros);
    return eqnn_leave(z ? eqnn_tensor_product(x, z, w, p) : eqnn_irreps_map(x, w, NULL, one, NULL));
}

/* y = s + a h, but s + h for columns that s does not reach, where s is 0 (v2106): a layer begins as
   its self-connection and learns how much to hear. */
static eqnn_tensor *eqnn__conv_mix(eqnn_tensor *s, eqnn_tensor *h, eqnn_tensor *a,
                                   const eqnn_tensor *x, const eqnn_tensor *z)
{
    if (!s || !h || !a) return NULL;
    const eqnn_irreps *out = h->label;
    eqnn_tensor *reached = eqnn_zeros(h->ctx, 1, out->copies);
    if (!reached) return NULL;
    for (int b = 0, at = 0; b < out->blocks; b++) {
        eqnn_real one = (eqnn_real)eqnn__self_reaches(x, z, out, b);
        for (int u = 0; u < out->block[b].copies; u++) reached->data[at++] = one;
    }
    a = eqnn_shift(eqnn_mul(eqnn_shift(eqnn__bare(a), -1), reached), 1);
    return eqnn_add(s, eqnn_scale_copies(h, a));
}

static int eqnn__conv_check(eqnn_tensor *x, eqnn_tensor *Y, eqnn_tensor *b, const eqnn_graph *g,
                            const eqnn_irreps *out)
{
    if (eqnn__bad(x, "conv") || eqnn__bad2(x, Y, "conv") || eqnn__bad2(x, b, "conv")) return 0;
    if (!g || !out) {
        eqnn__fail(x->ctx, "conv: there is no %s", g ? "output label" : "graph");
        return 0;
    }
    if (!Y->label) {
        eqnn__fail(x->ctx, "conv: the edge attributes [%d,%d] have no label", Y->rows, Y->cols);
        return 0;
    }
    if (Y->rows != g->edges || (b->rows != g->edges && b->rows != g->pairs)) {
        eqnn__fail(x->ctx,
                   "conv: %d rows of harmonics and %d of the radial basis for %d edges, %d pairs",
                   Y->rows, b->rows, g->edges, g->pairs);
        return 0;
    }
    if (x->rows != g->sources || g->sources != g->targets) {
        eqnn__fail(x->ctx, "conv: %d rows of features for %d sources and %d targets", x->rows,
                   g->sources, g->targets);
        return 0;
    }
    return 1;
}

/* Nodes speak (lin1), edges carry what is said (the message: harmonics times radial weights), nodes
   listen (lin2) and remember themselves (sc). */
EQNN_API eqnn_tensor *eqnn_conv(eqnn_tensor *x, eqnn_tensor *z, eqnn_tensor *Y, eqnn_tensor *b,
                                const eqnn_graph *g, const char *name, const eqnn_irreps *out,
                                const eqnn_conv_opts *opts)
{
    eqnn_conv_opts o;
    eqnn__conv_defaults(&o, opts);
    x = eqnn__with_label(x);
    z = eqnn__with_label(z);
    if (!eqnn__conv_check(x, Y, b, g, out)) return NULL;
    eqnn_ctx *c = x->ctx;
    const eqnn_irreps *mid = out;
    if (o.mixing) mid = eqnn_irreps_concat(c, out, eqnn_irreps_make(c, "1x0e"));
    const eqnn_product *p = eqnn__may_merge(z, out)
                                ? eqnn__product_merged(c, x->label, Y->label, mid)
                                : eqnn_product_channelwise(c, x->label, Y->label, mid, NULL);
    if (!p) return NULL;
    x = eqnn_enter(x, name);
    eqnn_tensor *s = eqnn__node_map(x, z, "sc", out);
    if (!eqnn_product_weights(p))
        return eqnn_leave(o.mixing ? s : eqnn_scale(s, sin(EQNN__PI / 8)));
    eqnn_tensor *h = eqnn__node_map(x, z, "lin1", x ? x->label : NULL);
    eqnn_tensor *V = NULL, *hidden = eqnn__radial(b, eqnn_product_weights(p), &o, &V);
    h = V ? eqnn_message(h, Y, hidden, V, p, g) : NULL;
    eqnn_tensor *y = eqnn__node_map(h, z, "lin2", out);
    if (o.mixing) return eqnn_leave(eqnn__conv_mix(s, y, eqnn__zero_map(h, z, "alpha"), x, z));
    return eqnn_leave(eqnn__conv_join(s, y, x, z));
}

/* --- convolution and gate --- */

/* Does some product of the features a and the edge attributes b contain (l, p)? */
static int eqnn__reach(const eqnn_irreps *a, const eqnn_irreps *b, int l, int p)
{
    for (int i = 0; i < a->blocks; i++)
        for (int j = 0; j < b->blocks; j++) {
            const eqnn_type *s = a->block[i].type, *t = b->block[j].type;
            if (!a->block[i].copies || !b->block[j].copies || s->p * t->p != p) continue;
            if (abs(s->l - t->l) <= l && l <= s->l + t->l) return 1;
        }
    return 0;
}

/* Hidden scalars are activated, everything else gets a scalar gate: even where one can be made,
   else odd. What no product reaches is left out. Room for the activations is the step's. */
static int eqnn__gate_of(eqnn_ctx *c, const eqnn_irreps *a, const eqnn_irreps *b,
                         const eqnn_irreps *hidden, eqnn_gate_spec *spec)
{
    size_t n = (size_t)hidden->blocks + 1;
    int (*list)[3] = (int (*)[3])eqnn__step_alloc(c, 3 * n * sizeof *list);
    eqnn_act *acts = (eqnn_act *)eqnn__step_alloc(c, 2 * n * sizeof *acts);
    if (!list || !acts) return 0;
    int (*scalars)[3] = list, (*gates)[3] = list + n, (*gated)[3] = list + 2 * n, s = 0, k = 0;
    int even = eqnn__reach(a, b, 0, 1);
    for (int i = 0; i < hidden->blocks; i++) {
        const eqnn_type *t = hidden->block[i].type;
        int copies = hidden->block[i].copies;
        if (!eqnn__reach(a, b, t->l, t->p)) continue;
        int (*to)[3] = t->l ? &gated[k] : &scalars[s];
        (*to)[0] = copies, (*to)[1] = t->l, (*to)[2] = t->p;
        if (t->l) {
            gates[k][0] = copies, gates[k][1] = 0, gates[k][2] = even ? 1 : -1;
            acts[n + (size_t)k++] = even ? EQNN_SIGMOID : EQNN_TANH;
        } else {
            acts[s++] = t->p > 0 ? EQNN_SILU : EQNN_TANH;
        }
    }
    spec->scalars = eqnn_irreps_blocks(c, (const int (*)[3])scalars, s);
    spec->gates = eqnn_irreps_blocks(c, (const int (*)[3])gates, k);
    spec->gated = eqnn_irreps_blocks(c, (const int (*)[3])gated, k);
    spec->act_scalars = acts;
    spec->act_gates = acts + n;
    if (!s && !k)
        eqnn__fail(c, "gated_conv: no product of %s with %s reaches any of %s", a->name, b->name,
                   hidden->name);
    return spec->scalars && spec->gates && spec->gated && !c->failed;
}

EQNN_API eqnn_tensor *eqnn_gated_conv(eqnn_tensor *x, eqnn_tensor *z, eqnn_tensor *Y,
                                      eqnn_tensor *b, const eqnn_graph *g, const char *name,
                                      const char *hidden, const eqnn_conv_opts *opts)
{
    eqnn_gate_spec spec;
    x = eqnn__with_label(x);
    if (eqnn__bad(x, "gated_conv") || eqnn__bad2(x, Y, "gated_conv")) return NULL;
    const eqnn_irreps *want = eqnn_irreps_make(x->ctx, hidden);
    if (!want) return NULL;
    if (!Y->label) return eqnn__fail(x->ctx, "gated_conv: the edge attributes have no label");
    memset(&spec, 0, sizeof spec);
    spec.exact = opts ? opts->exact : 0;
    if (!eqnn__gate_of(x->ctx, x->label, Y->label, want, &spec)) return NULL;
    x = eqnn_enter(x, name);
    x = eqnn_conv(x, z, Y, b, g, "first", eqnn_gate_in(Y->ctx, &spec), opts);
    return eqnn_leave(eqnn_gate(x, &spec));
}

/* --- gate_points_2101: network --- */

static int eqnn__network_defaults(eqnn_ctx *c, eqnn_network_opts *o, const eqnn_network_opts *opts)
{
    memset(o, 0, sizeof *o);
    if (opts) *o = *opts;
    if (!o->hidden || !o->out || !(o->radius > 0)) {
        eqnn__fail(c, "network: .hidden, .out and .radius must be given");
        return 0;
    }
    if (o->layers <= 0) o->layers = 3;
    if (o->lmax == 0) o->lmax = 3;
    if (o->lmax < 0) o->lmax = 0;
    if (o->basis <= 0) o->basis = 10;
    if (o->radial_layers <= 0) o->radial_layers = 1;
    if (o->radial_neurons <= 0) o->radial_neurons = 128;
    if (!(o->neighbours > 0)) o->neighbours = 1;
    if (!(o->nodes > 0)) o->nodes = 1;
    return 1;
}

/* Directions: harmonics of the unit vectors, faded out towards the radius by a cosine envelope. */
static eqnn_tensor *eqnn__edge_harmonics(eqnn_tensor *r, eqnn_tensor *length, int lmax,
                                         double radius)
{
    eqnn_harmonics_opts h;
    memset(&h, 0, sizeof h);
    h.normalize = 1;
    eqnn_tensor *envelope = eqnn_map(eqnn_scale(length, 1 / radius), EQNN_COSINE_CUTOFF, 0, 0);
    return eqnn_mul(eqnn_spherical_harmonics(r, lmax, &h), envelope);
}

/* The scalars of edges that a caller gives, as plain numbers. */
static eqnn_tensor *eqnn__edge_scalars(eqnn_tensor *s, const eqnn_graph *g, const char *who)
{
    if (eqnn__bad(s, who)) return NULL;
    if (s->rows != g->edges)
        return eqnn__fail(s->ctx, "%s: edge_scalars [%d,%d] for %d edges", who, s->rows, s->cols,
                          g->edges);
    if (s->label && (eqnn_irreps_lmax(s->label) > 0 || eqnn_irreps_count(s->label, 0, -1)))
        return eqnn__fail(s->ctx, "%s: edge_scalars %s are not invariant", who, s->label->name);
    return eqnn_as(s, NULL);
}

/* What the radial network sees: radial functions of the length and the edge's own scalars. It is
   the same for an edge and its reverse, so one row a pair is enough where the graph knows pairs. */
static eqnn_tensor *eqnn__radial_input(eqnn_tensor *length, const eqnn_graph *g,
                                       const eqnn_network_opts *o, const eqnn_radial_opts *radial)
{
    if (g->pairs) length = eqnn_take(length, g->pair_edge_index);
    eqnn_tensor *b = eqnn_radial_basis(length, o->basis, o->radius, radial);
    if (!o->edge_scalars) return b;
    eqnn_tensor *s = eqnn__edge_scalars(o->edge_scalars, g, "network");
    return eqnn_concat(b, g->pairs ? eqnn_take(s, g->pair_edge_index) : s);
}

static eqnn_tensor *eqnn__network_layers(eqnn_tensor *x, eqnn_tensor *z, eqnn_tensor *Y,
                                         eqnn_tensor *b, const eqnn_graph *g,
                                         const eqnn_network_opts *o, int mixing)
{
    char name[64];
    eqnn_conv_opts conv;
    conv.radial_layers = o->radial_layers;
    conv.radial_neurons = o->radial_neurons;
    conv.neighbours = o->neighbours;
    conv.exact = o->exact;
    conv.mixing = mixing;
    for (int k = 0; k < o->layers; k++) {
        snprintf(name, sizeof name, "layers.%d", k);
        x = eqnn_gated_conv(x, z, Y, b, g, name, o->hidden, &conv);
    }
    if (!x) return NULL;
    snprintf(name, sizeof name, "layers.%d", o->layers);
    return eqnn_conv(x, z, Y, b, g, name, eqnn_irreps_make(x->ctx, o->out), &conv);
}

EQNN_API eqnn_tensor *eqnn_network(eqnn_tensor *x, eqnn_tensor *z, eqnn_tensor *pos,
                                   const eqnn_graph *g, const char *name,
                                   const eqnn_network_opts *opts)
{
    eqnn_network_opts o;
    if (eqnn__bad(pos, "network") || !eqnn__network_defaults(pos->ctx, &o, opts)) return NULL;
    if (!g) return eqnn__fail(pos->ctx, "network: there is no graph");
    eqnn_tensor *r = eqnn_edge_vectors(pos, g), *length = eqnn_norm(r);
    eqnn_tensor *Y = eqnn__edge_harmonics(r, length, o.lmax, o.radius);
    eqnn_tensor *b = eqnn__radial_input(length, g, &o, NULL);
    x = eqnn__with_label(x ? x : eqnn_full(pos->ctx, g->sources, 1, 1));
    x = eqnn_enter(x, name ? name : "");
    x = eqnn__network_layers(x, z, Y, b, g, &o, 0);
    if (o.reduce) x = eqnn_scale(eqnn_pool_sum(x, g), 1 / sqrt(o.nodes));
    return eqnn_leave(x);
}

/* --- the polynomial model --- */

/* Sum over neighbours of x[source] times the harmonics, of every degree; without x, of these alone.
 */
static eqnn_tensor *eqnn__polynomial_nodes(eqnn_tensor *x, eqnn_tensor *Y, const eqnn_graph *g)
{
    if (!x || !Y) return eqnn_scatter(Y, g);
    x = eqnn__with_label(x);
    if (eqnn__bad2(x, Y, "polynomial")) return NULL;
    const eqnn_product *p = eqnn_product_channelwise(x->ctx, x->label, Y->label, NULL, NULL);
    return p ? eqnn_message(x, Y, eqnn_full(x->ctx, 1, eqnn_product_weights(p), 1), NULL, p, g)
             : NULL;
}

/* Sum over neighbours of the fully connected product of h[source] with the harmonics. The weights
   are the same for every edge, so the message form sums before it mixes. */
static eqnn_tensor *eqnn__polynomial_layer(eqnn_tensor *h, eqnn_tensor *Y, const eqnn_graph *g,
                                           const char *name, const char *out)
{
    h = eqnn_enter(h, name);
    const eqnn_irreps *irreps = h ? eqnn_irreps_make(h->ctx, out) : NULL;
    const eqnn_product *p = irreps ? eqnn_product_full(h->ctx, h->label, Y->label, irreps, NULL)
                                   : NULL;
    if (!p) return NULL;
    eqnn_tensor *w = p->weights ? eqnn_param(h->ctx, "weight", 1, p->weights, NULL) : NULL;
    return eqnn_leave(eqnn_message(h, Y, w, NULL, p, g));
}

/* Products of sums of harmonics: no nonlinearity, no radial function; a polynomial in the vectors.
 */
EQNN_API eqnn_tensor *eqnn_polynomial(eqnn_tensor *pos, const eqnn_graph *g, const char *name,
                                      const eqnn_polynomial_opts *opts)
{
    if (eqnn__bad(pos, "polynomial")) return NULL;
    if (!opts || !opts->mid || !opts->out)
        return eqnn__fail(pos->ctx, "polynomial: .mid and .out must be given");
    double scale = 1 / sqrt(opts->neighbours > 0 ? opts->neighbours : 1);
    int lmax = opts->lmax > 0 ? opts->lmax : opts->lmax < 0 ? 0 : 3;
    eqnn_tensor *Y = eqnn_spherical_harmonics(eqnn_edge_vectors(pos, g), lmax, NULL);
    eqnn_tensor *h = eqnn_scale(eqnn__polynomial_nodes(opts->x, Y, g), scale);
    h = eqnn_enter(h, name ? name : "");
    h = eqnn_scale(eqnn__polynomial_layer(h, Y, g, "tp1", opts->mid), scale);
    h = eqnn__polynomial_layer(h, Y, g, "tp2", opts->out);
    return eqnn_leave(opts->sum_last ? eqnn_scale(h, scale) : eqnn_mul(h, eqnn_inverse_degree(g)));
}

/* --- v2106: a network whose layers begin as their self-connections --- */

/* "50x0o+50x0e+50x1o+...": both parities of every degree up to lmax. */
static const eqnn_irreps *eqnn__every_irrep(eqnn_ctx *c, int copies, int lmax)
{
    int (*list)[3] = (int (*)[3])eqnn__step_alloc(c, 2 * ((size_t)lmax + 1) * sizeof *list);
    for (int b = 0; list && b < 2 * (lmax + 1); b++) {
        list[b][0] = copies;
        list[b][1] = b / 2;
        list[b][2] = b % 2 ? 1 : -1;
    }
    return list ? eqnn_irreps_blocks(c, (const int (*)[3])list, 2 * (lmax + 1)) : NULL;
}

static int eqnn__network_2106_defaults(eqnn_ctx *c, eqnn_network_opts *o,
                                       const eqnn_network_opts *opts)
{
    eqnn_network_opts given;
    memset(&given, 0, sizeof given);
    if (opts) given = *opts;
    if (given.lmax == 0) given.lmax = 2;
    if (given.radial_neurons <= 0) given.radial_neurons = 100;
    if (!given.hidden) {
        const eqnn_irreps *all = eqnn__every_irrep(c, 50, given.lmax > 0 ? given.lmax : 0);
        given.hidden = all ? all->name : NULL;
    }
    return !c->failed && eqnn__network_defaults(c, o, &given);
}

/* Unlike the network of 2101, harmonics have no envelope: the radial functions, which all vanish
   at the radius, and a radial network without biases fade a message out by themselves. */
EQNN_API eqnn_tensor *eqnn_network_2106(eqnn_tensor *x, eqnn_tensor *z, eqnn_tensor *pos,
                                        const eqnn_graph *g, const char *name,
                                        const eqnn_network_opts *opts)
{
    eqnn_network_opts o;
    eqnn_harmonics_opts unit;
    eqnn_radial_opts radial;
    if (eqnn__bad(pos, "network") || !eqnn__network_2106_defaults(pos->ctx, &o, opts)) return NULL;
    if (!g) return eqnn__fail(pos->ctx, "network: there is no graph");
    memset(&unit, 0, sizeof unit);
    memset(&radial, 0, sizeof radial);
    unit.normalize = 1;
    radial.basis = EQNN_SMOOTH_FINITE;
    radial.cutoff = 1;
    eqnn_tensor *r = eqnn_edge_vectors(pos, g);
    eqnn_tensor *b = eqnn__radial_input(eqnn_norm(r), g, &o, &radial);
    x = eqnn__with_label(x ? x : eqnn_full(pos->ctx, g->sources, 1, 1));
    x = eqnn_enter(eqnn_enter(x, name ? name : ""), "mp");
    x = eqnn__network_layers(x, z, eqnn_spherical_harmonics(r, o.lmax, &unit), b, g, &o, 1);
    if (o.reduce) x = eqnn_scale(eqnn_pool_sum(x, g), 1 / sqrt(o.nodes));
    return eqnn_leave(eqnn_leave(x));
}

/* --- attention --- */

static int eqnn__attention_defaults(eqnn_ctx *c, eqnn_attention_opts *o,
                                    const eqnn_attention_opts *opts)
{
    memset(o, 0, sizeof *o);
    if (opts) *o = *opts;
    if (!o->q || !o->out || !(o->radius > 0)) {
        eqnn__fail(c, "attention: .q, .out and .radius must be given");
        return 0;
    }
    if (!o->k) o->k = o->q;
    if (o->lmax == 0) o->lmax = 3;
    if (o->lmax < 0) o->lmax = 0;
    if (o->basis <= 0) o->basis = 10;
    if (o->hidden <= 0) o->hidden = 16;
    return 1;
}

/* What all heads see of the edges. */
typedef struct eqnn__edges {
    const eqnn_graph *g;
    const eqnn_graph *each; /* the same edges, each with a target of its own        */
    eqnn_tensor *Y, *b;     /* harmonics of directions; radial functions of lengths */
    eqnn_tensor *within;    /* 10 (1 - r/radius): positive inside                   */
} eqnn__edges;

/* An edge as a node that one edge enters: a message to it is a product of the edge alone. */
static const eqnn_graph *eqnn__each_edge(const eqnn_graph *g)
{
    eqnn_graph_opts o;
    if (g->edges == 0) return g;
    int *self = eqnn__graph_room(g->ctx, (size_t)g->edges, 0);
    memset(&o, 0, sizeof o);
    o.sources = g->sources;
    o.targets = g->edges;
    for (int e = 0; self && e < g->edges; e++) self[e] = e;
    return self ? eqnn_graph_make(g->ctx, g->edges, g->source, self, &o) : NULL;
}

static int eqnn__edges_of(eqnn__edges *a, eqnn_tensor *pos, const eqnn_graph *g,
                          const eqnn_attention_opts *o)
{
    eqnn_harmonics_opts unit;
    eqnn_radial_opts radial;
    memset(a, 0, sizeof *a);
    memset(&unit, 0, sizeof unit);
    memset(&radial, 0, sizeof radial);
    unit.normalize = 1;
    radial.basis = EQNN_SMOOTH_FINITE;
    radial.cutoff = 1;
    eqnn_tensor *r = eqnn_edge_vectors(pos, g), *length = eqnn_norm(r);
    a->g = g;
    a->Y = eqnn_spherical_harmonics(r, o->lmax, &unit);
    a->b = eqnn_radial_basis(length, o->basis, o->radius, &radial);
    if (o->edge_scalars)
        a->b = eqnn_concat(a->b, eqnn__edge_scalars(o->edge_scalars, g, "attention"));
    a->within = eqnn_shift(eqnn_scale(length, -10 / o->radius), 10);
    a->each = a->within ? eqnn__each_edge(g) : NULL;
    return a->each != NULL;
}

/* The radial network of that name as messages take it: hidden features, and the last matrix in V.
   Without biases and with act(0) = 0 it fades out with its input. */
static eqnn_tensor *eqnn__edge_net(eqnn_tensor *b, const char *name, const eqnn_product *p,
                                   const eqnn_attention_opts *o, eqnn_tensor **V)
{
    char widths[64];
    eqnn_fc_opts f, given;
    if (!b || !p) return NULL;
    memset(&given, 0, sizeof given);
    given.act = o->act;
    given.exact = o->exact;
    eqnn__fc_defaults(&f, &given);
    if (!eqnn_product_weights(p))
        return eqnn__fail(b->ctx, "attention: no product of features and harmonics reaches %s",
                          eqnn_product_out(p)->name);
    snprintf(widths, sizeof widths, "%d,%d", o->hidden, eqnn_product_weights(p));
    b = eqnn_enter(b, name);
    return eqnn_leave(b ? eqnn__fc_split(b, widths, &f, V) : NULL);
}

/* alpha = a / sum of a over the edges that enter a node, a = cut exp(logit), cut = exp(-1/t) for
   t = 10 (1 - r/radius) > 0, else 0. As ln a = logit - 1/t, alpha is the softmax of ln a exactly,
   with the maximum subtracted so that nothing overflows; that a is at most 1 says ln a <= 0. */
static eqnn_tensor *eqnn__attend(eqnn_tensor *logit, const eqnn__edges *a,
                                 const eqnn_attention_opts *o)
{
    if (eqnn__bad2(logit, a->within, "attention")) return NULL;
    eqnn_ctx *c = logit->ctx;
    eqnn_tensor *zero = eqnn_zeros(c, 1, 1), *inside = eqnn_less(zero, a->within);
    eqnn_tensor *away = eqnn_reciprocal(a->within), *s = eqnn_sub(eqnn__bare(logit), away);
    if (o->clamp) s = eqnn_min(s, zero);
    s = eqnn_where(inside, s, eqnn_full(c, 1, 1, -1e30));
    if (!o->raw) return eqnn_mul(eqnn_edge_softmax(s, a->g), inside);
    eqnn_tensor *e = eqnn_exp(s), *z = eqnn_scatter(e, a->g);
    return eqnn_div(e, eqnn_gather_target(eqnn_add(z, eqnn_equal(z, zero)), a->g));
}

/* Keys are made edge by edge; values are summed as they are made, with sqrt(alpha) in the hidden
   features of their radial network, whose last layer is linear. */
static eqnn_tensor *eqnn__head(eqnn_tensor *x, const eqnn__edges *a, const char *name,
                               const eqnn_attention_opts *o)
{
    x = eqnn_enter(x, name);
    if (!x) return NULL;
    eqnn_ctx *c = x->ctx;
    eqnn_tensor *V_k = NULL, *V_v = NULL;
    eqnn_tensor *q = eqnn_irreps_linear(x, "to_q", o->q, NULL);
    const eqnn_irreps *to_k = eqnn_irreps_make(c, o->k), *to_v = eqnn_irreps_make(c, o->out);
    if (!to_k || !to_v) return NULL;
    const eqnn_product *p_k = eqnn_product_full(c, x->label, a->Y->label, to_k, NULL);
    const eqnn_product *p_v = eqnn_product_full(c, x->label, a->Y->label, to_v, NULL);
    eqnn_tensor *h_k = eqnn__edge_net(a->b, "fc_k", p_k, o, &V_k);
    eqnn_tensor *h_v = eqnn__edge_net(a->b, "fc_v", p_v, o, &V_v);
    if (!h_k || !h_v) return NULL;
    eqnn_tensor *k = eqnn_message(x, a->Y, h_k, V_k, p_k, a->each);
    if (a->g->edges == 0) k = eqnn_slice_rows(k, 0, 0);
    q = eqnn_gather_target(q, a->g);
    eqnn_tensor *logit = eqnn_fully_connected(q, k, "dot_product", "1x0e", NULL);
    eqnn_tensor *alpha = eqnn__attend(logit, a, o);
    if (o->weights) *o->weights = alpha;
    h_v = eqnn_mul(h_v, eqnn_sqrt(alpha));
    eqnn_tensor *y = h_v ? eqnn_message(x, a->Y, h_v, V_v, p_v, a->g) : NULL;
    return eqnn_leave(o->mean ? eqnn_mul(y, eqnn_inverse_degree(a->g)) : y);
}

static int eqnn__attention_check(eqnn_tensor *x, eqnn_tensor *pos, const eqnn_graph *g)
{
    if (eqnn__bad2(x, pos, "attention")) return 0;
    if (!g || x->rows != g->sources || g->sources != g->targets) {
        eqnn__fail(x->ctx, "attention: %d rows of features for %d sources and %d targets", x->rows,
                   g ? g->sources : 0, g ? g->targets : 0);
        return 0;
    }
    return 1;
}

EQNN_API eqnn_tensor *eqnn_attention(eqnn_tensor *x, eqnn_tensor *pos, const eqnn_graph *g,
                                     const char *name, const eqnn_attention_opts *opts)
{
    eqnn_attention_opts o;
    eqnn__edges a;
    x = eqnn__with_label(x);
    if (!eqnn__attention_check(x, pos, g)) return NULL;
    if (!eqnn__attention_defaults(x->ctx, &o, opts)) return NULL;
    if (!eqnn__edges_of(&a, pos, g, &o)) return NULL;
    return eqnn__head(x, &a, name, &o);
}

static int eqnn__multi_head_defaults(eqnn_ctx *c, eqnn_multi_head_opts *o,
                                     const eqnn_multi_head_opts *opts)
{
    eqnn_attention_opts head;
    memset(o, 0, sizeof *o);
    if (opts) *o = *opts;
    head = o->head;
    if (!o->out) o->out = "1x1o";
    if (o->heads <= 0) o->heads = 8;
    if (o->layers <= 0) o->layers = 4;
    if (head.weights) {
        eqnn__fail(c, "multi_head: .weights are those of one head");
        return 0;
    }
    return eqnn__attention_defaults(c, &o->head, &head);
}

EQNN_API eqnn_tensor *eqnn_multi_head(eqnn_tensor *x, eqnn_tensor *pos, const eqnn_graph *g,
                                      const char *name, const eqnn_multi_head_opts *opts)
{
    eqnn_multi_head_opts o;
    eqnn__edges a;
    x = eqnn__with_label(x);
    if (!eqnn__attention_check(x, pos, g)) return NULL;
    eqnn_ctx *c = x->ctx;
    if (!eqnn__multi_head_defaults(c, &o, opts)) return NULL;
    if (!eqnn__edges_of(&a, pos, g, &o.head)) return NULL;
    eqnn_tensor **h = (eqnn_tensor **)eqnn__step_alloc(c, (size_t)o.heads * sizeof *h);
    x = h ? eqnn_enter(x, name) : NULL;
    for (int k = 0; x && k < o.heads; k++)
        h[k] = eqnn__head(x, &a, eqnn_format(c, "heads.%d", k), &o.head);
    if (!x || c->failed) return NULL;
    eqnn_tensor *one_over = eqnn_inverse_degree(g), *y = eqnn_concat_n(h, o.heads);
    y = eqnn_mul(eqnn__polynomial_layer(y, a.Y, g, "tp1", o.head.out), one_over);
    y = eqnn_mul(eqnn__polynomial_layer(y, a.Y, g, "tp2", o.out), one_over);
    return eqnn_leave(y);
}

/* The neighbours of positions that have moved, of the same examples. */
static const eqnn_graph *eqnn__graph_again(eqnn_tensor *pos, const eqnn_graph *g, double radius)
{
    eqnn_graph_opts o;
    memset(&o, 0, sizeof o);
    o.example = g->example;
    o.examples = g->example ? g->examples : 0;
    if (!g->shift) return eqnn_radius_graph(pos, radius, &o);
    eqnn__fail(pos->ctx, "attention_network: one layer only in a periodic box");
    return NULL;
}

EQNN_API eqnn_tensor *eqnn_attention_network(eqnn_tensor *pos, const eqnn_graph *g,
                                             const char *name, const eqnn_multi_head_opts *opts)
{
    eqnn_multi_head_opts o;
    if (eqnn__bad(pos, "attention_network")) return NULL;
    if (!eqnn__attention_check(pos, pos, g)) return NULL;
    if (!eqnn__multi_head_defaults(pos->ctx, &o, opts)) return NULL;
    pos = eqnn_as(pos, eqnn_irreps_make(pos->ctx, "1x1o"));
    pos = eqnn_enter(pos, name ? name : "");
    eqnn_tensor *now = pos, *y = NULL;
    for (int k = 0; now && k < o.layers; k++) {
        eqnn_tensor *x = now;
        int again = k > 0 && !o.head.edge_scalars;
        if (again && !(g = eqnn__graph_again(now, g, o.head.radius))) return NULL;
        if (o.centred) x = eqnn_sub(now, eqnn_take(eqnn_pool_mean(now, g), g->example_index));
        if (o.x) x = eqnn_concat(x, o.x);
        y = eqnn_multi_head(x, now, g, eqnn_format(now->ctx, "layers.%d", k), &o);
        now = o.moves ? eqnn_add(now, y) : y;
    }
    return eqnn_leave(o.moves ? eqnn_sub(now, pos) : y);
}

/* --- graph attention without symmetry: a baseline --- */

static void eqnn__gat_defaults(eqnn_gat_opts *o, const eqnn_gat_opts *opts)
{
    memset(o, 0, sizeof *o);
    if (opts) *o = *opts;
    if (o->heads <= 0) o->heads = 1;
    if (o->slope == 0) o->slope = 0.2;
}

/* 1 for an edge between two nodes, 0 for a loop. */
static eqnn_tensor *eqnn__no_loop(const eqnn_graph *g)
{
    eqnn_tensor *x = eqnn_zeros(g->ctx, g->edges, 1);
    for (int e = 0; x && e < g->edges; e++) x->data[e] = (eqnn_real)(g->source[e] != g->target[e]);
    return x;
}

/* The graph with one loop at every node; a row for each of its edges says where its attributes are
   in those of the old edges with those of the nodes below them. */
static const eqnn_graph *eqnn__with_loops(const eqnn_graph *g, eqnn_ints **rows)
{
    eqnn_graph_opts o;
    size_t most = (size_t)g->edges + (size_t)g->targets;
    int n = 0, *source = eqnn__graph_room(g->ctx, most, 0);
    int *target = eqnn__graph_room(g->ctx, most, 0), *row = eqnn__graph_room(g->ctx, 2 * most, 0);
    if (!source || !target || !row) return NULL;
    for (int e = 0; e < g->edges + g->targets; e++) {
        int loop = e >= g->edges;
        if (!loop && g->source[e] == g->target[e]) continue;
        source[n] = loop ? e - g->edges : g->source[e];
        target[n] = loop ? e - g->edges : g->target[e];
        row[n++] = e;
    }
    memset(&o, 0, sizeof o);
    o.sources = o.targets = g->targets;
    const eqnn_graph *y = eqnn_graph_make(g->ctx, n, source, target, &o);
    if (!y) return NULL;
    for (int e = 0; e < n; e++) row[most + (size_t)e] = row[y->order[e]];
    *rows = eqnn__graph_index(g->ctx, n, row + most, (int)most, 0);
    return *rows ? y : NULL;
}

/* Which head a column of [.., heads * channels] belongs to; or which channel it is. */
static eqnn_ints *eqnn__head_columns(eqnn_ctx *c, int heads, int channels, int channel)
{
    int *v = eqnn__graph_room(c, (size_t)heads * (size_t)channels, 0);
    for (int i = 0; v && i < heads * channels; i++) v[i] = channel ? i % channels : i / channels;
    return v ? eqnn_ints_make(c, heads * channels, v, channel ? channels : heads, 0) : NULL;
}

/* <h, vector of that name> for every head: [.., heads] */
static eqnn_tensor *eqnn__head_score(eqnn_tensor *h, const char *name, eqnn_ints *head)
{
    eqnn_init init;
    if (!h || !head) return NULL;
    memset(&init, 0, sizeof init);
    init.kind = EQNN_INIT_GLOROT_UNIFORM;
    init.fan_in = h->cols / head->range;
    init.fan_out = head->range;
    return eqnn_collect_columns(eqnn_mul(h, eqnn_param(h->ctx, name, 1, h->cols, &init)), head);
}

/* <lin_edge(a), att_edge> = a M, M [n, heads] = lin_edge^T with the vectors multiplied in. */
static eqnn_tensor *eqnn__edge_score(eqnn_tensor *a, int cols, eqnn_ints *head)
{
    eqnn_init init;
    memset(&init, 0, sizeof init);
    init.kind = EQNN_INIT_GLOROT_UNIFORM;
    eqnn_tensor *in = eqnn_enter(a, "lin_edge");
    eqnn_tensor *W = in ? eqnn_param(a->ctx, "weight", cols, a->cols, &init) : NULL;
    W = eqnn_leave(W);
    return eqnn_matmul(a, eqnn__head_score(eqnn_transpose(W), "att_edge", head));
}

/* y_i = sum over edges of alpha h_j, each head with its own alpha: a message of numbers whose
   weights are alpha V, where V [heads, columns] is 1 where the column is the head's. */
static eqnn_tensor *eqnn__head_sum(eqnn_tensor *h, eqnn_tensor *alpha, eqnn_ints *head,
                                   const eqnn_graph *g)
{
    if (!h || !alpha) return NULL;
    eqnn_ctx *c = h->ctx;
    h = eqnn__with_label(h);
    const eqnn_irreps *one = eqnn_irreps_make(c, "1x0e");
    const eqnn_product *p = h ? eqnn_product_channelwise(c, h->label, one, NULL, NULL) : NULL;
    eqnn_tensor *V = eqnn_zeros(c, head->range, head->count);
    if (!p || !V) return NULL;
    for (int i = 0; i < head->count; i++) V->data[head->v[i] * head->count + i] = 1;
    eqnn_tensor *ones = eqnn_as(eqnn_full(c, g->edges, 1, 1), one);
    return eqnn__bare(eqnn_message(h, ones, alpha, V, p, g));
}

static int eqnn__gat_check(eqnn_tensor *x, eqnn_tensor *a, const eqnn_graph *g, int channels)
{
    if (eqnn__bad(x, "gat_conv") || (a && eqnn__bad2(x, a, "gat_conv"))) return 0;
    if (!g || channels <= 0 || x->rows != g->sources || g->sources != g->targets ||
        (a && a->rows != g->edges)) {
        eqnn__fail(x->ctx, "gat_conv: %d rows of features, %d of attributes and %d channels for "
                           "%d sources, %d targets and %d edges",
                   x->rows, a ? a->rows : 0, channels, g ? g->sources : 0, g ? g->targets : 0,
                   g ? g->edges : 0);
        return 0;
    }
    return 1;
}

/* Puts loops in, with the mean of the attributes that enter a node (0 when none does). */
static const eqnn_graph *eqnn__gat_loops(const eqnn_graph *g, eqnn_tensor **a)
{
    eqnn_ints *rows = NULL;
    const eqnn_graph *y = eqnn__with_loops(g, &rows);
    if (!y || !*a) return y;
    eqnn_tensor *keep = eqnn__no_loop(g), *both[2];
    eqnn_tensor *count = eqnn_max(eqnn_scatter(keep, g), eqnn_full(g->ctx, 1, 1, 1));
    both[0] = *a;
    both[1] = eqnn_div(eqnn_scatter(eqnn_mul(*a, keep), g), count);
    *a = eqnn_take(eqnn_stack(both, 2), rows);
    return *a ? y : NULL;
}

/* The maximum is subtracted before exp, so sums are at least 1 and the 1e-16 that PyTorch Geometric
   adds to them changes nothing. */
static eqnn_tensor *eqnn__gat_softmax(eqnn_tensor *h, eqnn_tensor *a, eqnn_ints *head,
                                      const eqnn_graph *g, double slope)
{
    if (!h || !head) return NULL;
    eqnn_tensor *s = eqnn_gather(eqnn__head_score(h, "att_src", head), g);
    s = eqnn_add(s, eqnn_gather_target(eqnn__head_score(h, "att_dst", head), g));
    if (a) s = eqnn_add(s, eqnn__edge_score(a, h->cols, head));
    return eqnn_edge_softmax(eqnn_leaky_relu(s, slope), g);
}

/* [nodes, heads * channels] or, when heads are averaged, [nodes, channels]; plus the bias. */
static eqnn_tensor *eqnn__gat_end(eqnn_tensor *y, int channels, const eqnn_gat_opts *o)
{
    eqnn_init zeros;
    if (!y) return NULL;
    memset(&zeros, 0, sizeof zeros);
    zeros.kind = EQNN_INIT_ZEROS;
    if (o->mean) {
        eqnn_ints *channel = eqnn__head_columns(y->ctx, o->heads, channels, 1);
        y = eqnn_scale(eqnn_collect_columns(y, channel), 1.0 / o->heads);
    }
    if (!y || o->no_bias) return y;
    return eqnn_add(y, eqnn_param(y->ctx, "bias", 1, y->cols, &zeros));
}

EQNN_API eqnn_tensor *eqnn_gat_conv(eqnn_tensor *x, eqnn_tensor *attributes, const eqnn_graph *g,
                                    const char *name, int channels, const eqnn_gat_opts *opts)
{
    eqnn_gat_opts o;
    eqnn_linear_opts lin;
    eqnn__gat_defaults(&o, opts);
    if (!eqnn__gat_check(x, attributes, g, channels)) return NULL;
    if (!o.given_edges && !(g = eqnn__gat_loops(g, &attributes))) return NULL;
    memset(&lin, 0, sizeof lin);
    lin.no_bias = 1;
    lin.weight.kind = EQNN_INIT_GLOROT_UNIFORM;
    eqnn_ints *head = eqnn__head_columns(x->ctx, o.heads, channels, 0);
    eqnn_tensor *h = eqnn_linear(eqnn_enter(x, name), "lin", o.heads * channels, &lin);
    eqnn_tensor *alpha = eqnn__gat_softmax(h, attributes, head, g, o.slope);
    if (o.weights) *o.weights = alpha;
    return eqnn_leave(eqnn__gat_end(eqnn__head_sum(h, alpha, head, g), channels, &o));
}

static void eqnn__gnn_defaults(eqnn_gnn_opts *o, const eqnn_gnn_opts *opts)
{
    memset(o, 0, sizeof *o);
    if (opts) *o = *opts;
    if (o->channels <= 0) o->channels = 256;
    if (o->heads <= 0) o->heads = 4;
    if (o->hidden <= 0) o->hidden = 256;
    if (o->out <= 0) o->out = 3;
    if (o->lmax == 0) o->lmax = 3;
    if (o->lmax < 0) o->lmax = 0;
    if (!(o->neighbours > 0)) o->neighbours = 6;
}

EQNN_API eqnn_tensor *eqnn_gnn(eqnn_tensor *pos, const eqnn_graph *g, const char *name,
                               const eqnn_gnn_opts *opts)
{
    eqnn_gnn_opts o;
    eqnn_gat_opts gat;
    eqnn_mlp_opts mlp;
    if (eqnn__bad(pos, "gnn")) return NULL;
    eqnn__gnn_defaults(&o, opts);
    memset(&gat, 0, sizeof gat);
    memset(&mlp, 0, sizeof mlp);
    gat.heads = o.heads;
    mlp.act = EQNN_GELU;
    eqnn_tensor *Y = eqnn_spherical_harmonics(eqnn_edge_vectors(pos, g), o.lmax, NULL);
    Y = eqnn__bare(Y); /* from here on components are mere numbers, and the symmetry is lost */
    eqnn_tensor *x = eqnn_scale(eqnn_scatter(Y, g), 1 / sqrt(o.neighbours));
    if (o.x) x = eqnn_concat(x, eqnn__bare(o.x));
    if (o.edge_scalars) Y = eqnn_concat(Y, eqnn__edge_scalars(o.edge_scalars, g, "gnn"));
    x = eqnn_enter(x, name ? name : "");
    x = eqnn_gat_conv(x, Y, g, "conv1", o.channels, &gat);
    x = eqnn_gat_conv(x, Y, g, "conv2", o.channels, &gat);
    return eqnn_leave(eqnn_mlp(x, "head", eqnn_format(pos->ctx, "%d,%d", o.hidden, o.out), &mlp));
}

#ifdef EQNN__QUICK
#pragma GCC pop_options
#pragma GCC pop_options
#endif
#undef EQNN__IMPLEMENTING
#endif /* EQNN_IMPLEMENTATION */

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

   CHANGES       0.1   first version: sections 1 to 13
   ---------------------------------------------------------------------------------------------- */
