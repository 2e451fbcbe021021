/* eqnn_groups.h - v0.1 - networks that respect any matrix group, for eqnn.h - licence at the end of
   this file

   A complete program (build: cc -O2 first.c -lm): every linear map from pairs of vectors to vectors
   that commutes with all rotations is a multiple of one, the cross product.

      #define EQNN_IMPLEMENTATION
      #include "eqnn_groups.h"

      int main(void)
      {
          eqnn_ctx *c = eqnn_make(NULL);
          const eqnn_group *so3 = eqnn_group_make(c, "SO(3)");
          const eqnn_rep *maps = eqnn_rep_make(c, "V*V >> V", so3);
          double Q[27];
          eqnn_basis_sparse(maps, Q);
          printf("%d equivariant map\n", (int)eqnn_basis_dim(maps));
          for (int i = 0; i < 27; i++) printf("%3g%s", Q[i], i % 9 == 8 ? "\n" : "");
          if (eqnn_error(c)) puts(eqnn_error(c));
          eqnn_free(c);
          return 0;
      }

   OPTIONS
      EQNN_IMPLEMENTATION   emits the code, in one C or C++ file; default declarations only
      EQNN_STATIC           makes every function private to the file; default external

   IS        the equivariant linear maps between any two representations of any matrix group, found
             from the group's generators, and the networks built of them (EMLP: M. Finzi, M. Welling
             and A. G. Wilson, ICML 2021, arXiv:2104.09459). Lie groups that act on points, and what
             pairs of points have in common that no element of the group changes.
   IS NOT    for sizes beyond a few thousand dense numbers a layer: images, grids, large graphs.

   CONVENTIONS
      A group is given by generators: matrices A of its Lie algebra, of which exp(t A) are elements,
      and single elements h; both d x d, row-major doubles, complex ones as pairs (re, im).
      A representation is an expression in V, the group's own matrices: "10*V + 5*V**2". Elements of
      a sum stand in the order written, those of a product a*b as in the Kronecker product, a's
      index slowest; a map a >> b is b*a.T, the matrix [b][a] row by row. V.T is the dual, with the
      inverse transposed matrices.
      Tensors labelled with a representation hold their columns sorted by type with copies running
      fastest, as all labels of eqnn.h do; eqnn_from_rep and eqnn_to_rep convert.

      An option that is set where nothing reads it (of another kernel, head or part of a network)
      is an error that says what it is for.

   CONTENTS   1 linear_algebra   2 groups   3 reps   4 bases   5 emlp   6 lie
              7 lieconv   8 lietransformer
              jump to a section: search ">>bases" */

#include "eqnn.h"

#ifndef EQNN_GROUPS_H
#define EQNN_GROUPS_H

/* ------------------------------------------------------------------------------------------------
   1 >>linear_algebra   Matrices of doubles: factorisations, eigenvalues, exponentials. Row-major;
                        working memory is the context's. (No declarations.)
   ---------------------------------------------------------------------------------------------- */

/* ------------------------------------------------------------------------------------------------
   2 >>groups   A group is what its generators generate. Everything here lives as long as the
                context; equal generators give the same pointer, whatever the names, unless they
                are to act apart from each other.
   ---------------------------------------------------------------------------------------------- */

typedef struct eqnn_group eqnn_group;

/* Trivial(n) SO(n) O(n) C(k) D(k) Scaling(n) Parity TimeReversal SO13p SO13 O13 Lorentz SO11p O11
   SO(p,q) O(p,q) Sp(m) Z(n) S(n) Alt(n) SL(n) GL(n) U(n) SU(n) Cube RubiksCube RubiksCubeLegacy
   ZksZnxZn(k,n) SO2eR3 O2eR3 DkeR3(k);
   products "SO(3)xS(5)", acting on the Kronecker product of the two spaces; "Embed(SO(2),3,0)": on
   3 dimensions, from index 0 on; "Real(U(2))": a complex group on real and imaginary parts. An
   unknown name gives an error with its column. */
EQNN_API const eqnn_group *eqnn_group_make(eqnn_ctx *c, const char *name);

/* Your own: everything is copied. A name that eqnn_group_make understands, or one given before, is
   refused for other generators. The scale belongs to the samples, not to the group: of two with
   the same generators the first counts. */
typedef struct eqnn_group_opts {
    int dim;                      /* d; no default                                               */
    int lie, discrete;            /* how many of each                                            */
    const double *lie_generators; /* [lie][d][d], or pairs (re, im) of a complex group; the largest
                                     number of each is 0 or from 1e-100 to 1e100                 */
    const double *generators;     /* [discrete][d][d], invertible, of such sizes too             */
    const int *permutations;      /* [discrete][d] in their place, without Lie generators: (h v)[i]
                                     = v[p[i]]; d may be large                                   */
    const double *scale;          /* [lie] of the random Lie part of samples; default 1          */
    int complex_numbers;          /* matrices are pairs (re, im); default real                   */
} eqnn_group_opts;
EQNN_API const eqnn_group *eqnn_group_of(eqnn_ctx *c, const char *name,
                                         const eqnn_group_opts *opts);
EQNN_API const eqnn_group *eqnn_group_product(const eqnn_group *a, const eqnn_group *b);
/* a acts on the given dim(a) of dim coordinates, the others stay. */
EQNN_API const eqnn_group *eqnn_group_embed(const eqnn_group *a, int dim, const int *places);
EQNN_API const eqnn_group *eqnn_group_real(const eqnn_group *a);
/* A second group like a, which acts independently of it: with "left" and "right" of SO(3),
   V(left)*V(right) is matrices that two rotations turn, R1 m R2^T. The name is its own. */
EQNN_API const eqnn_group *eqnn_group_apart(const eqnn_group *a, const char *name);

EQNN_API const char *eqnn_group_name(const eqnn_group *g);
EQNN_API int eqnn_group_dim(const eqnn_group *g);
EQNN_API int eqnn_group_complex(const eqnn_group *g);
EQNN_API int eqnn_group_orthogonal(const eqnn_group *g);  /* all elements are (real) */
EQNN_API int eqnn_group_permutation(const eqnn_group *g); /* all elements are permutations */
EQNN_API int eqnn_group_lie(const eqnn_group *g, const double **generators);      /* how many */
EQNN_API int eqnn_group_discrete(const eqnn_group *g, const double **generators); /* how many */

/* n random elements [n][d][d] (complex: of pairs) that depend on seed, scope, name and tick only.
   Uniform (Haar) for SO, O, U, SU, S, Alt, finite groups of up to 10000 elements, and products,
   embeddings and real forms of them; larger groups of permutations by words of 1000 generators and
   more, which is uniform to the eye. The others, and sample_published for all, as the EMLP paper's
   code does it: exp(sum_k z_k A_k) with z_k = scale_k N(0,1), then three rounds through the
   discrete generators in random order, each to a power from -5 to 4. */
EQNN_API int eqnn_group_sample(const eqnn_group *g, const char *name, int n, double *out);
EQNN_API int eqnn_group_sample_published(const eqnn_group *g, const char *name, int n, double *out);

/* ------------------------------------------------------------------------------------------------
   3 >>reps   What a column of numbers can be: sums, products and duals of the group's own
              matrices. A representation is an expression; it lives as long as the context.
   ---------------------------------------------------------------------------------------------- */

typedef struct eqnn_rep eqnn_rep;

/* Grammar, from the loosest binding to the tightest:
       a >> b   maps from a to b (b << a the same)
       a + b    direct sum; a whole number n alone is n scalars
       a * b    product; n * a and a * n are n copies
       a ** n   power           a.T   dual           (a)
       V  Vector  Scalar  T(p)  T(p,q)  names given to eqnn_rep_define
       P   sign of the determinant         psi(k)   k-th irrep of rotations of the plane
       atom(G), (a)(G)  of the group named instead of g: V(Z(3)), T(2)(SO(3)), (V + V**2)(O(3))
   Groups with equal generators are one, whatever their names: all its atoms turn together, so that
   V(S(3))*V(S(4)) is of two independent groups and V(S(4))*V(S(4)) is of one; eqnn_group_apart
   makes another S(4). A product is a group by itself, independent of its factors: V(S(5)) >> V of
   SO(3)xS(5) holds no map but zero. Where vectors of the factors occur too, write V(SO(3))*V(S(5))
   for that V.
   2V is 2*V and T2 is T(2). g may be NULL when every atom names its group. Errors name the column
   and what was expected. */
EQNN_API const eqnn_rep *eqnn_rep_make(eqnn_ctx *c, const char *text, const eqnn_group *g);
EQNN_API const eqnn_rep *eqnn_rep_vector(const eqnn_group *g);
EQNN_API const eqnn_rep *eqnn_rep_scalars(eqnn_ctx *c, int n);
EQNN_API const eqnn_rep *eqnn_rep_tensor(const eqnn_group *g, int p, int q);
EQNN_API const eqnn_rep *eqnn_rep_sum(const eqnn_rep *a, const eqnn_rep *b);
EQNN_API const eqnn_rep *eqnn_rep_times(int n, const eqnn_rep *a);
EQNN_API const eqnn_rep *eqnn_rep_product(const eqnn_rep *a, const eqnn_rep *b);
EQNN_API const eqnn_rep *eqnn_rep_power(const eqnn_rep *a, int n);
EQNN_API const eqnn_rep *eqnn_rep_dual(const eqnn_rep *a);
EQNN_API const eqnn_rep *eqnn_rep_map(const eqnn_rep *a, const eqnn_rep *b); /* a >> b */

/* Your own representation of g, of dim components: rho writes the matrix [dim][dim] of an element
   g [d][d]; drho that of a Lie generator, NULL: by differences of rho (exact to 1e-10 for
   polynomials). Both are tried on random elements; what is no representation is an error. The name
   can be used in expressions of g afterwards. */
typedef void (*eqnn_rep_function)(const double *g, int d, double *out, int dim, const void *user);
EQNN_API const eqnn_rep *eqnn_rep_define(const eqnn_group *g, const char *name, int dim,
                                         eqnn_rep_function rho, eqnn_rep_function drho,
                                         const void *user, size_t user_size);

EQNN_API const char *eqnn_rep_name(const eqnn_rep *r);  /* as written */
EQNN_API int eqnn_rep_size(const eqnn_rep *r);
EQNN_API int eqnn_rep_permutation(const eqnn_rep *r);   /* all matrices are permutations */
EQNN_API int eqnn_rep_gates(const eqnn_rep *r);         /* copies that are no permutations */
/* The groups named in r, at most room of them: how many. */
EQNN_API int eqnn_rep_groups(const eqnn_rep *r, const eqnn_group **groups, int room);
/* Have a and b the same types in the same places? */
EQNN_API int eqnn_rep_same(const eqnn_rep *a, const eqnn_rep *b);
/* The matrix [size][size] of one element of each group named in r: elements[i] is groups[i]'s. */
EQNN_API int eqnn_rep_matrix(const eqnn_rep *r, const eqnn_group *const *groups,
                             const double *const *elements, int n, double *out);
/* That of an element of each Lie algebra: the derivative of rho(exp(t A)) at t = 0, A[i] being
   groups[i]'s; groups that are not given stand still. */
EQNN_API int eqnn_rep_derivative(const eqnn_rep *r, const eqnn_group *const *groups,
                                 const double *const *A, int n, double *out);
/* y = rho x of vectors without making the matrix: x, y [size] */
EQNN_API int eqnn_rep_apply(const eqnn_rep *r, const eqnn_group *const *groups,
                            const double *const *elements, int n, const double *x, double *y);
/* The label of tensors whose columns are r's, sorted; and the conversions from and to r's order. */
EQNN_API const eqnn_label *eqnn_rep_label(const eqnn_rep *r);
EQNN_API eqnn_tensor *eqnn_from_rep(eqnn_tensor *x, const eqnn_rep *r);
EQNN_API eqnn_tensor *eqnn_to_rep(eqnn_tensor *x, const eqnn_rep *r);
/* x with its columns turned by one element of each group, as its label says (a constant). */
EQNN_API eqnn_tensor *eqnn_rep_turn(eqnn_tensor *x, const eqnn_group *const *groups,
                                    const double *const *elements, int n);
/* Largest error of f(g x) = g f(x) over trials random elements: root mean square over the sum of
   both sides'. A group that occurs in several tensors acts by the same element on all. absolute
   (or NULL) gets max |f(g x) - g f(x)|. */
EQNN_API double eqnn_rep_check(eqnn_function f, eqnn_tensor *const *x, int n, void *user,
                               int trials, double *absolute);
/* Scalars, vectors, matrices, ... of g with as many channels in all, about equally many a rank: for
   hidden layers. Without orthogonality V and V.T share each rank binomially. Of several groups (at
   most 8) the products too, from the small ones on: Scalar, V(SO(3)), V(S(5)), V(SO(3))**2,
   V(SO(3))*V(S(5)), ... */
EQNN_API const eqnn_rep *eqnn_rep_uniform(const eqnn_group *g, int channels);
EQNN_API const eqnn_rep *eqnn_rep_uniform_n(const eqnn_group *const *groups, int n, int channels);

/* ------------------------------------------------------------------------------------------------
   4 >>bases   The vectors that no element of the group moves; for a map a >> b these are the
               matrices W with W rho_a(g) = rho_b(g) W: all that a linear layer may be.
   ---------------------------------------------------------------------------------------------- */

/* Each type of the sum is solved once per context, when first asked for; see eqnn_basis_file.
       orbits    of components: permutation groups; exact, millions of components a second
       weights   of a Lie algebra that is closed under conjugate transposition, as those above are,
                 and discrete generators beside it; time and memory are those of writing the basis
       dense     any group; memory n^2, time n^3: by default up to 1500 real components
       krylov    any group, without matrices; the slower the nearer a singular value is to zero
   Whatever the method, the result is checked with all generators. The default takes the first that
   applies; one that is asked for and does not apply is an error. */
typedef enum eqnn_basis_method {
    EQNN_BASIS_AUTO, EQNN_BASIS_ORBITS, EQNN_BASIS_WEIGHTS, EQNN_BASIS_DENSE, EQNN_BASIS_KRYLOV
} eqnn_basis_method;
typedef struct eqnn_basis_opts {
    eqnn_basis_method method;  /* default by cost                                                 */
    double gap;                /* zero: singular values below gap times the largest; default 1e-8 */
                               /* (krylov: 1e-8, and none may lie between that and 1e-5)          */
    size_t memory;             /* bytes a solve may use; default 2e9                             */
    void (*progress)(void *user, const char *what, double done); /* done in 0..1, of long solves */
    void *progress_user;
} eqnn_basis_opts;
EQNN_API int eqnn_basis_options(eqnn_ctx *c, const eqnn_basis_opts *opts);
/* Bases are looked up in this safetensors file and kept there when they are new, keyed by the
   content of groups and types, with checksums; NULL: no file any more. A file that is damaged or
   holds something else is an error and stays as it is; one that is not there is made. Several
   contexts, threads and processes may have the same file: whoever keeps a basis there reads first
   what others have added, and the file is whole at all times. Without a lock, of two that keep
   theirs in the very same moment the file may hold the one's only, until the other keeps its next;
   a basis that is missing there is solved again by those that want it. */
EQNN_API int eqnn_basis_file(eqnn_ctx *c, const char *path);

EQNN_API int64_t eqnn_basis_dim(const eqnn_rep *r); /* -1 and an error when it cannot be found */
/* Q [dim][size]: rows are orthonormal basis vectors; complex ones as pairs (re, im). */
EQNN_API int eqnn_basis_dense(const eqnn_rep *r, double *Q);
/* Q [dim][size]: another basis, with as many zeros as elimination finds: each vector has a 1 where
   the others have 0. Its other entries are often 0, 1 and -1, as the Levi-Civita tensor's for SO(3)
   and V*V >> V. */
EQNN_API int eqnn_basis_sparse(const eqnn_rep *r, double *Q);
/* v [size] becomes P v: the nearest vector that no element moves (pairs for complex groups). */
EQNN_API int eqnn_basis_project(const eqnn_rep *r, double *v);
/* Why there is no equivariant map, in a sentence, when dim is 0; else what method was used. */
EQNN_API const char *eqnn_basis_explain(const eqnn_rep *r);

/* ------------------------------------------------------------------------------------------------
   5 >>emlp   Layers and networks between representations: linear maps whose weights are numbers
              before the vectors of an equivariant basis, products of features with features, gates.
              (Finzi, Welling, Wilson 2021, arXiv:2104.09459, sections 5 and 6.)
   ---------------------------------------------------------------------------------------------- */

/* y = W x + b. W is the sum of all equivariant maps from the columns of x to those of out, each
   with a weight; b of all fixed vectors of out. Blocks of one type are written [components][copies]
   and for the types s of x and t of out

       W_ts [dt, copies_t, ds, copies_s] = sum over k of Q_k [dt, ds] w_k [copies_t, copies_s]

   where the Q_k are orthogonal to each other, of squared length dt, so that a weight 1 before the
   identity is the identity. Names: "weight.t.s" [k, copies_t copies_s], "bias.t" [k, copies_t], t
   and s the blocks' numbers. x without a label holds scalars. */
typedef struct eqnn_rep_linear_opts {
    int no_bias;    /* default a bias                                                            */
    int projected;  /* "weight" [out, in] and "bias" [out] are any numbers (columns sorted as in
                       the labels), made equivariant by projection at every call, as the paper's
                       code has it, and starts them: ten times as many numbers; default
                       coefficients                                                              */
} eqnn_rep_linear_opts;
EQNN_API eqnn_tensor *eqnn_rep_linear(eqnn_tensor *x, const char *name, const eqnn_label *out,
                                      const eqnn_rep_linear_opts *opts);

/* y = W(x) x: the blocks of W(x) are themselves features. Maps from type s to type t are t*s.T, and
   where x has copies X_j of that very type R, at most as many as R has components, they serve:

       y_t [dt, v] = sum over s, j, u of theta_ts[j, v, u] X_j [dt, ds] x_s [ds, u]

   Gates alone cannot make a new direction out of old ones; this can. Scalars, which linear maps and
   gates serve, take no part as X. init NULL: theta normal, its variance one over the number of
   summands. Names: "theta.t.s" [j copies_t, copies_s]; "copies.R": which copies of block R serve,
   counted from 1, saved, evenly spaced at first. */
EQNN_API eqnn_tensor *eqnn_rep_bilinear(eqnn_tensor *x, const char *name, const eqnn_label *out,
                                        const eqnn_init *init);

/* Label with one scalar more, behind the others, for each copy that is neither a scalar nor a
   permutation representation; and the gate, which takes them off:
   y = sigmoid(gate) x for those copies, sigmoid(x) x for the others. */
EQNN_API const eqnn_label *eqnn_rep_gated(eqnn_ctx *c, const eqnn_label *label);
EQNN_API eqnn_tensor *eqnn_rep_gate(eqnn_tensor *x, const eqnn_label *out);

/* gate(a + 0.1 W(a) a), a = linear(x). Names: linear, bilinear. The weights of W(a) are kept three
   times as large as they act, so that what they do changes a third as fast under Adam: that halves
   the error of the collision problem (examples/emlp.c), and raises that of o5 with 300. */
typedef struct eqnn_emlp_opts {
    int channels;                /* numbers in a hidden layer (eqnn_rep_uniform); default 384    */
    int layers;                  /* blocks before the last linear map; default 3                 */
    const eqnn_rep *hidden;      /* of all hidden layers; default by channels                    */
    const eqnn_rep *const *hiddens; /* [layers] of each in its place; default .hidden            */
    int no_bilinear;             /* linear maps and gates only                                   */
    eqnn_rep_linear_opts linear; /* of all linear maps; with .projected bilinear weights start as
                                    N(0,1) too, and all is the paper's                           */
} eqnn_emlp_opts;
EQNN_API eqnn_tensor *eqnn_emlp_block(eqnn_tensor *x, const char *name, const eqnn_label *out,
                                      const eqnn_emlp_opts *opts);

/* The whole network from columns that are in's to columns that are out's, both in their own order;
   g says what hidden layers are made of (NULL with .hidden): where in and out are of factors of the
   product g, of those that occur. What no equivariant map takes to the hidden layers, or from them
   to out, is an error: it would be ignored, or constant. So is a type of out that stays zero
   because the hidden layers hold too little of what products make (of O(3), 3*V -> P needs V**4
   beside V**3): the first call tries it. Names: network.0.linear ..., network.3. */
EQNN_API eqnn_tensor *eqnn_emlp(eqnn_tensor *x, const char *name, const eqnn_rep *in,
                                const eqnn_rep *out, const eqnn_group *g,
                                const eqnn_emlp_opts *opts);

/* ------------------------------------------------------------------------------------------------
   6 >>lie   Lie groups that act on points: exp, log, and elements that carry a fixed origin to a
             point ("lifts"). What two lifted points have in common with each other, whatever the
             group does to both, is log(v^-1 u) and their orbits: the input of LieConv (M. Finzi et
             al., ICML 2020, arXiv:2002.12880) and LieTransformer (M. Hutchinson et al., ICML 2021,
             arXiv:2012.10885).

       group            algebra a            element, a row         orbit q of a point
       T(d)             shift                the shift              -
       Tx(d), Ty(d)     shift along an axis  the shift              the other coordinates
       Trivial(d)       -                    -                      the point
       SO(2)            angle                cos, sin               r
       RxSO(2)          log scale, angle     log scale, cos, sin    -
       Rx               log scale            log scale              cos, sin of the direction
       Rx_published     log scale            log scale              the direction as an angle
       SE(2)            angle, u             cos, sin, shift        -
       SO(3)            w (axis * angle)     quaternion w x y z     r
       SE(3)            w, u                 quaternion, shift      -
       RxSQ             log r, log s         log r, log s           -      of x = r s, y = r / s
       SQ               log s                log s                  log r
       SE(2)_canonical(n)  x, y, k           k, shift               -      turns by 2 pi k / n

   Angles are radians in (-pi, pi]; in the plane those within rounding (1e-11, float 1e-5) of -pi
   count as pi; shift = V(w) u (a point turned while it is pushed). Elements and coordinates are
   invariant numbers (no label). All is recorded in operations, so that gradients of any order flow;
   at the identity, at angle pi and at coincident points all are finite. Where a direction has no
   value, at the origin of SO(2), Rx, RxSO(2) and SO(3), it is that of the x axis, with gradient 0;
   1e-15 is the smallest length of which a logarithm is taken. RxSQ and SQ act on points of positive
   coordinates only: others are lifted as if they were 1e-15, which says nothing of where they are.
   ---------------------------------------------------------------------------------------------- */

typedef struct eqnn_lie eqnn_lie;

/* The table above; parentheses may be left out: "SE2". Lives as long as the context. */
EQNN_API const eqnn_lie *eqnn_lie_make(eqnn_ctx *c, const char *name);
/* The same with alpha, see eqnn_lie_distance, behind it in parentheses, as the papers' commands
   have it: "SE3(.2)", "SE3(1/5)", "RxSO2(.3)", "Rx(.1)"; without one, as in "T(3)" or "SO2()",
   *alpha is 0.2. */
EQNN_API const eqnn_lie *eqnn_lie_weighed(eqnn_ctx *c, const char *name, double *alpha);

/* Your own: exp, log and lift are enough. n are rows; what is NULL is made of the others, taking an
   element for the point_dim x point_dim matrix, row by row. */
typedef struct eqnn_lie_opts {
    int point_dim;      /* columns of the points acted on; no default                            */
    int lie_dim;        /* columns of the algebra; no default                                    */
    int cols;           /* columns of an element; default point_dim * point_dim, a matrix        */
    int q_dim;          /* columns that tell orbits apart; default none                          */
    int draws;          /* random numbers that a lift takes; default none                        */
    int normal;         /* draws are N(0,1); default uniform in [0,1)                            */
    int even;           /* a point's samples take one draw, spread evenly over [0,1) (modulo 1): by
                           default each has its own                                              */
    int alpha_first, alpha_cols; /* algebra columns that alpha weighs in the distance, default all;
                                    the others are weighed by 1 - alpha                          */
    const void *user;   /* for eqnn_lie_user: not copied                                         */
    eqnn_tensor *(*exp)(const eqnn_lie *g, eqnn_tensor *a);     /* [n,lie_dim] -> [n,cols]       */
    eqnn_tensor *(*log)(const eqnn_lie *g, eqnn_tensor *u);     /* [n,cols] -> [n,lie_dim]       */
    /* Elements with u(origin of the orbit) = point: [n,point_dim], [n,draws] -> [n,cols], *q
       [n,q_dim]; spread evenly over all such elements when the draws are. */
    eqnn_tensor *(*lift)(const eqnn_lie *g, eqnn_tensor *point, eqnn_tensor *draws,
                         eqnn_tensor **q);
    eqnn_tensor *(*product)(const eqnn_lie *g, eqnn_tensor *u, eqnn_tensor *v); /* u v           */
    eqnn_tensor *(*inverse)(const eqnn_lie *g, eqnn_tensor *u); /* default exp(-log u)           */
    eqnn_tensor *(*between)(const eqnn_lie *g, eqnn_tensor *v, eqnn_tensor *u); /* v^-1 u        */
    eqnn_tensor *(*act)(const eqnn_lie *g, eqnn_tensor *u, eqnn_tensor *x); /* [n,point_dim]     */
    eqnn_tensor *(*apart)(const eqnn_lie *g, eqnn_tensor *q, eqnn_tensor *p); /* [n,1] distance of
                                                       orbits; default |q - p|                   */
    eqnn_tensor *(*bracket)(const eqnn_lie *g, eqnn_tensor *a, eqnn_tensor *b); /* default none */
} eqnn_lie_opts;
EQNN_API const eqnn_lie *eqnn_lie_of(eqnn_ctx *c, const char *name, const eqnn_lie_opts *opts);

EQNN_API const char *eqnn_lie_name(const eqnn_lie *g);
EQNN_API int eqnn_lie_dim(const eqnn_lie *g);
EQNN_API int eqnn_lie_cols(const eqnn_lie *g);
EQNN_API int eqnn_lie_point_dim(const eqnn_lie *g);
EQNN_API int eqnn_lie_q_dim(const eqnn_lie *g);
EQNN_API int eqnn_lie_pair_dim(const eqnn_lie *g); /* lie_dim + 2 q_dim */
EQNN_API int eqnn_lie_draws(const eqnn_lie *g);
EQNN_API const void *eqnn_lie_user(const eqnn_lie *g);

/* One of two tensors may have a single row, which serves all rows of the other. */
EQNN_API eqnn_tensor *eqnn_lie_exp(const eqnn_lie *g, eqnn_tensor *a);
EQNN_API eqnn_tensor *eqnn_lie_log(const eqnn_lie *g, eqnn_tensor *u); /* the principal one */
EQNN_API eqnn_tensor *eqnn_lie_inverse(const eqnn_lie *g, eqnn_tensor *u);
EQNN_API eqnn_tensor *eqnn_lie_product(const eqnn_lie *g, eqnn_tensor *u, eqnn_tensor *v);
EQNN_API eqnn_tensor *eqnn_lie_act(const eqnn_lie *g, eqnn_tensor *u, eqnn_tensor *x);
/* Rows are the matrices [d+1][d+1] of x -> R x + t, d = point_dim: R, t; 0, 1. */
EQNN_API eqnn_tensor *eqnn_lie_matrix(const eqnn_lie *g, eqnn_tensor *u);
/* Of the algebra: [a, b]; and log(exp a exp b) by the series of Baker, Campbell and Hausdorff, to
   terms of degree order, 1 to 4. */
EQNN_API eqnn_tensor *eqnn_lie_bracket(const eqnn_lie *g, eqnn_tensor *a, eqnn_tensor *b);
EQNN_API eqnn_tensor *eqnn_lie_bch(const eqnn_lie *g, eqnn_tensor *a, eqnn_tensor *b, int order);

/* Lifts points [n,point_dim] to *u [n*samples,cols] and *q [n*samples,q_dim] (NULL if q_dim is 0);
   row p*samples+s is sample s of point p. Random ones depend on seed, scope, name and tick only.
   Groups whose elements are told by the point (no draws) allow one sample only, but
   SE(2)_canonical(n) wants n. 0 on error. */
EQNN_API int eqnn_lie_lift(const eqnn_lie *g, eqnn_tensor *points, const char *name, int samples,
                           eqnn_tensor **u, eqnn_tensor **q);
/* The same with the numbers given, [n*samples,draws]: SE(2) and SO(3) a fraction of a turn; SE(3)
   four normal numbers, the quaternion before it gets length 1; SE(2)_canonical(n) k / n. */
EQNN_API int eqnn_lie_lift_given(const eqnn_lie *g, eqnn_tensor *points, eqnn_tensor *draws,
                                 int samples, eqnn_tensor **u, eqnn_tensor **q);

/* v^-1 u for every edge, v the source's element and u the target's: [edges,cols]. Of SE(3) these
   are LieTransformer's quaternion embeddings of pairs, whose signs are, as published, those of the
   lifts' quaternions: see eqnn_lie_near. (Of SE(2)_canonical, as published, u^-1 v.) */
EQNN_API eqnn_tensor *eqnn_lie_between(const eqnn_lie *g, eqnn_tensor *u, const eqnn_graph *graph);
/* The same elements, but of the quaternions q and -q, which turn alike, the one with w >= 0: then
   what is between two lifts depends on the rotations only, with a jump at half a turn. */
EQNN_API eqnn_tensor *eqnn_lie_near(const eqnn_lie *g, eqnn_tensor *u);
/* For every edge log(v^-1 u), q of the target, q of the source: [edges,pair_dim]. More than 65,536
   are computed again in the backward pass, if one asks for their slopes. */
EQNN_API eqnn_tensor *eqnn_lie_pairs(const eqnn_lie *g, eqnn_tensor *u, eqnn_tensor *q,
                                     const eqnn_graph *graph);
/* alpha |turn| + (1 - alpha) |rest| of such rows: [edges,1], 0 <= alpha <= 1. The turn are the
   algebra's columns that alpha weighs: all of T, Tx, Ty, SO(2), Rx and SO(3), the angle of RxSO(2)
   and SE(2), w of SE(3), log s of RxSQ and SQ. The rest: the other columns, and how far the orbits
   are apart: |q - p|, of SO(2) |r - r'| / (r + r' + 1e-3), of Rx the angle between. */
EQNN_API eqnn_tensor *eqnn_lie_distance(const eqnn_lie *g, eqnn_tensor *pairs, double alpha);

/* The neighbours of lifted points by that distance, themselves included. Without .radius, .nearest
   and .fill all are neighbours, whatever the distance: SE(2)_canonical has none. */
typedef struct eqnn_lie_graph_opts {
    double radius;      /* only nearer ones; default no limit                                    */
    int nearest;        /* only so many of the nearest (equal ones by index); default all        */
    double fill;        /* the same as a share of the example's points; default all              */
    int most;           /* at most so many of those, taken at random; default all                */
    const char *name;   /* of the random numbers for .most; default "neighbours"                 */
    const int *example; /* [nodes] sorted, which example a node belongs to; default one          */
    int examples;       /* default the last of example + 1                                       */
    int keep;           /* outlasts the step; default not                                        */
} eqnn_lie_graph_opts;
EQNN_API const eqnn_graph *eqnn_lie_graph(const eqnn_lie *g, eqnn_tensor *u, eqnn_tensor *q,
                                          double alpha, const eqnn_lie_graph_opts *opts);

/* Farthest point sampling (T. F. Gonzalez 1985, doi:10.1016/0304-3975(85)90224-5): of every example
   round(fraction n) nodes (halves to even), each the one that is farthest from those before it; of
   equally far ones the first. Indices stand in the order of choice, example by example. f writes
   the distances from node `from` to nodes first..first+n-1. */
typedef void (*eqnn_distances)(void *user, int from, int first, int n, double *out);
typedef struct eqnn_farthest_opts {
    const int *example;  /* [nodes] sorted; default one example                                  */
    int examples;        /* default the last of example + 1                                      */
    int count;           /* so many of every example (at most all); default fraction              */
    const int *start;    /* [examples] which of the example's nodes comes first; default 0       */
    const char *name;    /* a random one under this name instead; default not                    */
    int keep;            /* outlasts the step; default not                                       */
} eqnn_farthest_opts;
EQNN_API eqnn_ints *eqnn_farthest(eqnn_ctx *c, int nodes, double fraction, eqnn_distances f,
                                  void *user, const eqnn_farthest_opts *opts);
/* By the distance of lifted points. */
EQNN_API eqnn_ints *eqnn_lie_farthest(const eqnn_lie *g, eqnn_tensor *u, eqnn_tensor *q,
                                      double alpha, double fraction,
                                      const eqnn_farthest_opts *opts);

/* ------------------------------------------------------------------------------------------------
   7 >>lieconv   Convolution on points whose kernel sees pairs of group elements only, and is
                 therefore equivariant whatever the kernel is; networks of it for sets, images,
                 molecules and Hamiltonians. (M. Finzi, S. Stanton, P. Izmailov, A. G. Wilson, ICML
                 2020, arXiv:2002.12880.)
   ---------------------------------------------------------------------------------------------- */

/* Lifted points as a layer sees them: who may be whose neighbour (each node its own too), what each
   pair has in common (eqnn_lie_pairs) and how far they are apart. */
typedef struct eqnn_lie_cloud {
    const eqnn_graph *graph;
    eqnn_tensor *pairs;     /* [edges,pair_dim]                                                  */
    eqnn_tensor *distance;  /* [edges,1]; NULL: all edges of the graph are neighbours            */
    int copies;             /* so many examples have these points in common, such as the pixels of
                               images: rows of values are node * copies + copy; default 1        */
} eqnn_lie_cloud;

/* Lifts points [nodes,point_dim] and sees them as a cloud: sample s of node p is node p*samples+s,
   and an edge of the graph, from and to its nodes, becomes samples^2 edges. Lifts are random by
   name where they are, see eqnn_lie_lift, the same for every call of one tick. Rows of values
   follow by eqnn_repeat(x, samples). Distances are constants; groups without one have all
   neighbours. 0 on error. */
EQNN_API int eqnn_lie_cloud_make(const eqnn_lie *g, eqnn_tensor *points, const eqnn_graph *graph,
                                 const char *name, int samples, double alpha,
                                 eqnn_lie_cloud *cloud);
/* Makes the cloud outlast the step: points that do not move are lifted once. 0 on error. */
EQNN_API int eqnn_lie_cloud_keep(eqnn_lie_cloud *cloud);

/* y_i = W flat(1/|S_i| sum over j in S_i of x_j (outer) k(pair_ij)) + b, where k is a network with
   16 outputs and S_i the edges into i with a distance below a radius r. Training moves r towards
   the one that takes the share .fill of an example's points: r <- r + gain (fill - taken). Names:
   weightnet.0.module, .3.module, .6.module, their norms weightnet.1, .4, .7, linear (column
   16 c + k of its weight is channel c, output k), r. */
typedef struct eqnn_lie_conv_opts {
    eqnn_act act;      /* of the network k, after its last layer too, and of blocks; default silu */
    int norm;          /* batch norms; default none                                              */
    int sum;           /* no 1/|S_i|; default the mean                                           */
    double fill;       /* default 1; groups without a distance have no fill, radius and gain     */
    double radius;     /* r at first, of the distance's units; default 2                         */
    double gain;       /* of the same units; default 1/2, below 0: r stays                       */
    int most;          /* at most so many neighbours of those within r, drawn at random (under
                          "neighbours", anew each tick); default all                             */
    int published;     /* as the paper's code has it: 1/|S_i| multiplies the bias too, and batch
                          norms limit the variance from below by 1e-5 in the place of adding it   */
    int run;           /* edges that go through the network k at a time, and again in the backward
                          pass in the place of being remembered; below 0: all; default 8192 where
                          there are more than 65536, else all                                     */
} eqnn_lie_conv_opts;
EQNN_API eqnn_tensor *eqnn_lie_conv(eqnn_tensor *x, const eqnn_lie_cloud *cloud, const char *name,
                                    int out, const eqnn_lie_conv_opts *opts);

/* Some of a cloud's nodes, sorted by example (eqnn_lie_farthest): *queries has edges from all nodes
   to the chosen ones, *left those between the chosen. turned: a pair of *left is the one of the
   opposite edge, as the paper's code has it. Either may be NULL. 0 on error. */
EQNN_API int eqnn_lie_sample(const eqnn_lie_cloud *all, eqnn_ints *chosen, int turned,
                             eqnn_lie_cloud *queries, eqnn_lie_cloud *left);

/* Bottleneck block: x, or its rows at the chosen nodes when the cloud leads to those, with zeros
   as further channels, plus linear(act(conv(act(linear(act(x)))))), the convolution on a quarter
   of the channels, each act behind a batch norm when there are norms. Names: net.0 (norm),
   net.2.module, net.3, net.5 (conv), net.6, net.8.module. */
EQNN_API eqnn_tensor *eqnn_lie_block(eqnn_tensor *x, const eqnn_lie_cloud *cloud,
                                     eqnn_ints *chosen, const char *name, int out,
                                     const eqnn_lie_conv_opts *opts);

/* LieResNet: a linear layer, blocks, act, a linear layer, the mean over an example's nodes:
   [examples,out]. Names: net.0.module, net.1 ... net.L the blocks, net.L+1 (norm), net.L+3.module.
   Published sizes: molecules 6 layers of width 1536; images 6 layers, see eqnn_lie_image_sizes;
   springs 4 layers of width 384, without norms. The defaults of the paper's code are width 1536,
   norms and fill 1/4 in the place of those below. */
typedef struct eqnn_lie_resnet_opts {
    eqnn_lie_conv_opts conv;   /* of all blocks; conv.sum: the pool is a sum, too                */
    int layers;                /* blocks; default 6                                              */
    int width;                 /* channels of all layers; default 384                            */
    const int *widths;         /* [layers+1] in their place; default .width                      */
    const double *fills;       /* [layers] in the place of conv.fill                             */
    eqnn_ints *const *chosen;  /* [layers] nodes, of those left, that a block leads to, NULL for
                                  all; default all                                               */
    const eqnn_lie_cloud *queries; /* [layers] the clouds that lead to these, made before
                                  (eqnn_lie_sample, eqnn_lie_cloud_keep); default made anew      */
    int no_pool;               /* a row for each node left; default the pool                     */
} eqnn_lie_resnet_opts;
EQNN_API eqnn_tensor *eqnn_lie_resnet(eqnn_tensor *x, const eqnn_lie_cloud *cloud, const char *name,
                                      int out, const eqnn_lie_resnet_opts *opts);

/* ImgLieResNet: every block leaves the share *share = total^(1/layers) of the nodes, while channels
   grow as its inverse square root and the neighbours' share, up to 1, as its inverse: widths
   [layers+1], fills [layers], each or NULL. Published: 6 layers, width 128, fill 0.1, total 0.1. */
EQNN_API void eqnn_lie_image_sizes(int layers, int width, double fill, double total, int *widths,
                                   double *fills, double *share);

/* Particles in motion: z [nodes,2d] is position and momentum, the graph leads from every particle
   of an example to every one, itself too. */
typedef struct eqnn_particles {
    const eqnn_graph *graph;
    eqnn_tensor *constants;  /* [nodes,n] of each particle, the mass first                       */
} eqnn_particles;
/* x minus its mean over the example's nodes */
EQNN_API eqnn_tensor *eqnn_centred(eqnn_tensor *x, const eqnn_graph *graph);
/* sum of p^2 / 2m over an example: [examples,1] */
EQNN_API eqnn_tensor *eqnn_kinetic(eqnn_tensor *z, const eqnn_particles *particles);
/* dz/dt = (dH/dp, -dH/dq), recorded: with eqnn_ode and a loss on the trajectory the tape is
   differentiated twice in all. */
EQNN_API eqnn_tensor *eqnn_hamiltonian_field(eqnn_tensor *H, eqnn_tensor *z);

/* HLieResNet: H = kinetic energy + a LieResNet of centred positions and the constants, [examples,
   1]. The flow keeps momentum, since the positions are centred, and energy, except that H jumps
   where a pair crosses .conv.radius (by 5e-5 of H for T(2); no pair does when it is 1e9) or the cut
   of log at half a turn (1e-5 for SO(2), SO(3)). A group with rotations about the centre keeps
   angular momentum; where lifts are random only their law is turned along, and H changes by 1e-6 to
   1e-5. Random lifts are the same for all calls of one tick: a trajectory has one energy. */
EQNN_API eqnn_tensor *eqnn_lie_energy(eqnn_tensor *z, const eqnn_particles *particles,
                                      const eqnn_lie *g, int samples, double alpha,
                                      const char *name, const eqnn_lie_resnet_opts *opts);

/* Baselines that know no symmetry but the centre. "fc": dz/dt by an mlp of all of an example's
   numbers; "hfc": kinetic energy + an mlp of positions and constants; names net.0.0, net.1.0, ...
   net.L; all examples have the same number of particles. "ogn", "hogn", "vogn": graph networks
   (A. Sanchez-Gonzalez et al. 2019, arXiv:1909.12790) whose edges, nodes and examples have features
   in turn; names gnlayers.0.layer.edge_model.edge_mlp.0, .2, node_model.node_mlp, global_model.
   global_mlp; qlinear, plinear (ogn), linear. hogn: H of the example's features; vogn: kinetic
   energy + V of them. Layers that the published code makes but never uses are not made: its counts
   are larger by 2 d (width + 1) (hogn) and by the last global_mlp (ogn). The result is dz/dt
   [nodes,2d] of "fc" and "ogn", else H [examples,1]. */
typedef struct eqnn_baseline_opts {
    int width;   /* default 256                                            */
    int layers;  /* default 4 of "fc" and "hfc", 1 of the graph networks   */
} eqnn_baseline_opts;
EQNN_API eqnn_tensor *eqnn_particle_baseline(eqnn_tensor *z, const eqnn_particles *particles,
                                             const char *kind, const char *name,
                                             const eqnn_baseline_opts *opts);

/* ------------------------------------------------------------------------------------------------
   8 >>lietransformer   Attention between lifted points (M. Hutchinson et al., ICML 2021,
                        arXiv:2012.10885): who listens to whom is decided by what both are and by
                        log(v^-1 u), which no element of the group changes. Memory is linear in the
                        number of edges.

      eqnn_lie_lift(G, points, "lift", samples, &u, &q);
      const eqnn_graph *g = eqnn_lie_graph(G, u, q, 0.2, &neighbours);
      eqnn_tensor *pairs = eqnn_lie_pairs(G, u, q, g);
      eqnn_tensor *y = eqnn_lie_transformer(eqnn_repeat(values, samples), pairs, g, "model", &opts);

   Weights stand under the names and in the order of the authors' code, a head's after another's.
   ---------------------------------------------------------------------------------------------- */

/* Target i listens to the sources j of its edges, every head h for itself, d = cols / heads:

       y_i = output_linear(sum over j of w_ijh v_jh),   v = input_linear(x)

   w is made of the logits l of i's n edges: softmax of l, l / n ("dot_product", weights of any
   sign), or exp(l) / n ("norm_exp", as published: large logits overflow). The logits, by .kernel:

       "mlp"                 q_i . k_j / sqrt(d) + M(pair)
       "dot_product_only"    q_i . k_j / sqrt(d)
       "location_only"       M(pair)
       "relative_position"   (q_i . k_j + (q_i + v) . e_ij + u . k_j) / sqrt(d), e = W_l(pair)
       "abcd"                M(F, L), by four digits:
                             a  1 softmax, 2 dot_product: .attention is that, or not set
                             b  2
                             c  1 F = q_i . k_j / sqrt(d), 2 (A x_i, B x_j), 3 C (A x_i, B x_j)
                             d  1 L = M(pair), 0 or 2 the pair itself

   M is a network of each head: to kernel_dim, to kernel_dim, to one number, with act behind all
   three (so that logits of M have a least value). What depends on i or j alone is computed once for
   every node. Weights of M start within 1 / sqrt(inputs); the authors' within 1 / sqrt(outputs).
   Names: input_linear, output_linear, kernel.{feature_kernel,location_kernel,...}. */
typedef struct eqnn_lie_attention_opts {
    const char *kernel;     /* default "mlp"                                                     */
    const char *attention;  /* default "softmax", or a code's own                                */
    int heads;              /* default 8                                                         */
    int kernel_dim;         /* hidden numbers of M; default 16                                   */
    int feature_dim;        /* numbers of F for c 2 (even) and 3; default cols / (4 heads), made
                               even for c 2, but at least 2                                      */
    eqnn_act act;           /* of M; default silu                                                */
    int kernel_norm;        /* batch norm before each act of M; default none                     */
    int published;          /* as the authors' code has it: batch norms limit the variance from
                               below by 1e-5 in the place of adding it                           */
    eqnn_tensor **logits;   /* gets them, [edges, heads] by (target, source)                     */
    int run;                /* edges that go through the location's network at a time, as in
                               eqnn_lie_conv_opts; with batch norms in training all go           */
} eqnn_lie_attention_opts;
/* x [nodes, cols], pairs [edges, any] or, where they are not asked for, NULL -> [nodes, cols] */
EQNN_API eqnn_tensor *eqnn_lie_attention(eqnn_tensor *x, eqnn_tensor *pairs, const eqnn_graph *g,
                                         const char *name, const eqnn_lie_attention_opts *opts);

/* x <- x + A(x), x <- x + M(x): A attention ("ema"), M ("mlp") two linear maps with act behind
   both; a norm before ("_pre") or behind ("_post") each of A, M: ln_ema, ln_mlp, bn_ema, bn_mlp. */
typedef struct eqnn_lie_transformer_opts {
    eqnn_lie_attention_opts attention; /* .act, .kernel_norm: in the blocks' M too, .act also in
                                          the head                                               */
    const char *norm;   /* "none", "layer_pre", "layer_post", "batch_pre", "batch_post"; default
                           "layer_pre"                                                           */
    int cols;           /* of the blocks; default 160                                            */
    int layers;         /* default 5                                                             */
    int out;            /* default 1                                                             */
    const char *head;   /* "model_1": pool, then three linear maps, each behind an act (and a norm);
                           "lieconv": act and a linear map, then pool; default "model_1"         */
    const char *head_norm; /* of model_1: "none", "layer", "batch"; default "none"               */
    int max_pool;       /* the maximum over an example's nodes; default their mean               */
    int squash;         /* pairs p become p tanh(|p| / 7) / |p|; default as they are             */
} eqnn_lie_transformer_opts;
EQNN_API eqnn_tensor *eqnn_lie_attention_block(eqnn_tensor *x, eqnn_tensor *pairs,
                                               const eqnn_graph *g, const char *name,
                                               const eqnn_lie_transformer_opts *opts);
/* The whole network: a linear map to .cols, blocks, head -> [examples, out]. Invariant, where pairs
   are. Names: net.0.module, net.1 ... net.layers, net.{layers+2}.{2,5,8} (norms 0,3,6) or
   net.{layers+1}.linear.module. */
EQNN_API eqnn_tensor *eqnn_lie_transformer(eqnn_tensor *x, eqnn_tensor *pairs, const eqnn_graph *g,
                                           const char *name,
                                           const eqnn_lie_transformer_opts *opts);

/* Set Transformer (J. Lee et al., ICML 2019, arXiv:1810.00825), a baseline that knows no symmetry
   but order. Rows x listen to rows y along the edges of g (y the sources):

       z = q + sum over j of softmax_j(q_i . k_j / sqrt(cols)) v_j,     z + relu(fc_o z)

   q = fc_q(x), k = fc_k(y), v = fc_v(y), heads apart; behind both, if wanted, norms ln0, ln1. */
typedef struct eqnn_set_opts {
    int cols, heads; /* default 128, 4                                                           */
    int norm;        /* layer norms; default none                                                */
    int encoders;    /* default 4                                                                */
    int inducing;    /* encoders go by way of so many learned rows, linear in the nodes; default all
                        nodes listen along the edges of g                                        */
    int decoders;    /* behind the pool; default 4 (negative: none)                              */
    int seeds;       /* rows of the result for each example; default 1                           */
    int out;         /* columns of the result; default 1                                         */
} eqnn_set_opts;
EQNN_API eqnn_tensor *eqnn_set_attention(eqnn_tensor *x, eqnn_tensor *y, const eqnn_graph *g,
                                         const char *name, const eqnn_set_opts *opts);
/* Encoders, learned seeds that listen to an example's nodes, decoders among the seeds, a linear
   map: [examples*seeds, out]. Names: enc_layers.b.module.mab (.I, .mab0, .mab1),
   pooling_layer.module.S, .mab, dec_layers.b.module.mab, dec_layers.{decoders}.module. */
EQNN_API eqnn_tensor *eqnn_set_transformer(eqnn_tensor *x, const eqnn_graph *g, const char *name,
                                           const eqnn_set_opts *opts);

/* LieTransformer's forerunner for finite groups of turns, pairs from SE(2)_canonical(n) with n
   samples of every point: layers z + relu(fc_o z), where z = v + attention to v with the logits
   q_i . k_j / sqrt(cols) + M(pair), then the mean over an example's nodes and two linear maps:
   [examples, out]. x [nodes, any] is what points are like ("embedder.mlp"); NULL: all are alike
   ("embedder.constant_Y"). Names: enc_layers.b.mab.{fc_q,fc_k,fc_v,fc_o,k_g.HEAD.0,k_g.HEAD.2},
   dec_layers.0.{0,2}. */
typedef struct eqnn_finite_opts {
    int cols, heads; /* default 128, 4                                                           */
    int layers;      /* default 4                                                                */
    int out;         /* default 1                                                                */
    int dot_product; /* logits over the number of neighbours; default their softmax              */
    int slots;       /* the sum over an example's nodes is divided by it, as published with the size
                        of the padded example; default the mean                                  */
} eqnn_finite_opts;
EQNN_API eqnn_tensor *eqnn_finite_transformer(eqnn_tensor *x, eqnn_tensor *pairs,
                                              const eqnn_graph *g, const char *name,
                                              const eqnn_finite_opts *opts);

/* A Hamiltonian: kinetic energy + the network (.out is 1) of the centred positions and constants,
   [examples,1]. Every particle is lifted `samples` times, and edges lead from all its lifts to all
   those of its neighbours. Random lifts are the same ones until the next tick. Published:
   "dot_product" attention; T(2) with the defaults, 841,641 weights; SE(2)_canonical(2) with 2
   samples, 3 layers and 80 columns, 139,353. */
EQNN_API eqnn_tensor *eqnn_lie_transformer_energy(eqnn_tensor *z, const eqnn_particles *particles,
                                                  const eqnn_lie *g, int samples, const char *name,
                                                  const eqnn_lie_transformer_opts *opts);

#endif /* EQNN_GROUPS_H */

#if defined(EQNN_IMPLEMENTATION) && !defined(EQNN__GROUPS_IMPLEMENTED)
#define EQNN__GROUPS_IMPLEMENTED

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* EQNN_STRICT: no multiply-add contraction here either (eqnn.h ends its own setting at its end).
   gcc 12 makes vfmaddsub of complex products all the same when it vectorises. */
#ifdef EQNN_STRICT
#if defined(__clang__)
#pragma clang fp contract(off)
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=off", "no-tree-vectorize", "no-tree-slp-vectorize")
#elif defined(_MSC_VER)
#pragma fp_contract(off)
#endif
#endif

/* ------------------------------------------------------------------------------------------------
   1 >>linear_algebra
   ---------------------------------------------------------------------------------------------- */

/* n things of the heap, zeroed; eqnn__drop gives them back, the last ones taken first. */
static void *eqnn__take(eqnn_ctx *c, size_t n, size_t size)
{
    if (n > SIZE_MAX / 2 / size) return eqnn__fail(c, "%s: a size overflows", c->op);
    void *p = eqnn__heap(c, NULL, 0, n * size + 1);
    if (p) memset(p, 0, n * size + 1);
    return p;
}

static void eqnn__drop(eqnn_ctx *c, void *p, size_t n, size_t size)
{
    eqnn__heap_free(c, p, n * size + 1);
}

/* Working memory of one computation: pieces of the context's heap, given back in the opposite
   order, all together at the end or back to a mark. */
typedef struct eqnn__scrap {
    struct eqnn__scrap *below;
    size_t bytes;
} eqnn__scrap;
typedef struct eqnn__space {
    eqnn_ctx *ctx;
    eqnn__scrap *top;
    size_t used, limit; /* bytes; limit 0: none         */
    const char *what;   /* what is computed, for errors */
} eqnn__space;

static void eqnn__space_begin(eqnn__space *w, eqnn_ctx *c, size_t limit, const char *what)
{
    w->ctx = c;
    w->top = NULL;
    w->used = 0;
    w->limit = limit;
    w->what = what;
}

/* count items of so many bytes, all zero; NULL and an error when there is no room. */
static void *eqnn__space_take(eqnn__space *w, size_t count, size_t item)
{
    size_t head = EQNN__ALIGN, bytes = head + count * item;
    int over = count > (SIZE_MAX - head) / item;
    if (over || (w->limit && bytes > w->limit - (w->used < w->limit ? w->used : w->limit))) {
        eqnn__fail(w->ctx,
                   "%s: %.4g bytes beside %.4g in use are more than the %.4g allowed; see "
                   "memory in eqnn_basis_options",
                   w->what, (double)count * (double)item, (double)w->used, (double)w->limit);
        return NULL;
    }
    eqnn__scrap *p = (eqnn__scrap *)eqnn__heap(w->ctx, NULL, 0, bytes);
    if (!p) return NULL;
    memset(p, 0, bytes);
    p->below = w->top;
    p->bytes = bytes;
    w->top = p;
    w->used += bytes;
    return (char *)p + head;
}

static double *eqnn__space_doubles(eqnn__space *w, size_t a, size_t b)
{
    if (b && a > SIZE_MAX / 16 / b) a = SIZE_MAX / 8, b = 1; /* refused below */
    return (double *)eqnn__space_take(w, a * b, sizeof(double));
}

static int *eqnn__space_ints(eqnn__space *w, size_t n)
{
    return (int *)eqnn__space_take(w, n, sizeof(int));
}

/* Gives back everything taken after mark, an earlier w->top; NULL: all. */
static void eqnn__space_back(eqnn__space *w, const eqnn__scrap *mark)
{
    while (w->top && w->top != mark) {
        eqnn__scrap *p = w->top;
        w->top = p->below;
        w->used -= p->bytes;
        eqnn__heap_free(w->ctx, p, p->bytes);
    }
}

/* --- complex numbers --- */

typedef struct eqnn__z {
    double re, im;
} eqnn__z;

static eqnn__z eqnn__z_of(double re, double im)
{
    eqnn__z z;
    z.re = re;
    z.im = im;
    return z;
}

static eqnn__z eqnn__z_conj(eqnn__z a) { return eqnn__z_of(a.re, -a.im); }
static double eqnn__z_square(eqnn__z a) { return a.re * a.re + a.im * a.im; }
static double eqnn__z_abs(eqnn__z a) { return sqrt(eqnn__z_square(a)); }
static eqnn__z eqnn__z_scale(double s, eqnn__z a) { return eqnn__z_of(s * a.re, s * a.im); }
static eqnn__z eqnn__z_add(eqnn__z a, eqnn__z b) { return eqnn__z_of(a.re + b.re, a.im + b.im); }
static eqnn__z eqnn__z_sub(eqnn__z a, eqnn__z b) { return eqnn__z_of(a.re - b.re, a.im - b.im); }

static eqnn__z eqnn__z_mul(eqnn__z a, eqnn__z b)
{
    return eqnn__z_of(a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re);
}

static eqnn__z eqnn__z_div(eqnn__z a, eqnn__z b)
{
    return eqnn__z_scale(1 / eqnn__z_square(b), eqnn__z_mul(a, eqnn__z_conj(b)));
}

/* sum conj(a) b */
static eqnn__z eqnn__z_dot(size_t n, const eqnn__z *a, const eqnn__z *b)
{
    double re = 0, im = 0;
    for (size_t i = 0; i < n; i++) {
        re += a[i].re * b[i].re + a[i].im * b[i].im;
        im += a[i].re * b[i].im - a[i].im * b[i].re;
    }
    return eqnn__z_of(re, im);
}

/* y += s x */
static void eqnn__z_axpy(size_t n, eqnn__z s, const eqnn__z *x, eqnn__z *y)
{
    for (size_t i = 0; i < n; i++) {
        y[i].re += s.re * x[i].re - s.im * x[i].im;
        y[i].im += s.re * x[i].im + s.im * x[i].re;
    }
}

static double eqnn__z_norm(size_t n, const eqnn__z *a) { return sqrt(eqnn__z_dot(n, a, a).re); }

static void eqnn__z_swap(size_t n, eqnn__z *a, eqnn__z *b)
{
    for (size_t i = 0; a != b && i < n; i++) {
        eqnn__z t = a[i];
        a[i] = b[i];
        b[i] = t;
    }
}

/* Numbers of one double (field 1) or a pair (2) as complex ones; and back. */
static void eqnn__z_from(size_t n, int field, const double *a, eqnn__z *out)
{
    for (size_t i = 0; i < n; i++)
        out[i] = field == 2 ? eqnn__z_of(a[2 * i], a[2 * i + 1]) : eqnn__z_of(a[i], 0);
}

static void eqnn__z_to(size_t n, int field, const eqnn__z *a, double *out)
{
    for (size_t i = 0; i < n; i++) {
        out[(size_t)field * i] = a[i].re;
        if (field == 2) out[2 * i + 1] = a[i].im;
    }
}

/* C = A B of n x n matrices */
static void eqnn__z_product(int n, const eqnn__z *A, const eqnn__z *B, eqnn__z *C)
{
    size_t N = (size_t)n;
    for (size_t i = 0; i < N; i++) {
        for (size_t j = 0; j < N; j++) C[i * N + j] = eqnn__z_of(0, 0);
        for (size_t k = 0; k < N; k++)
            if (eqnn__z_square(A[i * N + k]) > 0)
                eqnn__z_axpy(N, A[i * N + k], B + k * N, C + i * N);
    }
}

/* --- small matrices, row-major, of f numbers an entry: 1 real, 2 pairs (re, im) --- */

/* C = A B */
static void eqnn__mat_mul(int f, int n, const double *A, const double *B, double *C)
{
    size_t w = (size_t)n * (size_t)f;
    memset(C, 0, (size_t)n * w * sizeof *C);
    for (int i = 0; i < n; i++)
        for (int k = 0; k < n; k++) {
            const double *a = A + (size_t)i * w + (size_t)(k * f), *b = B + (size_t)k * w;
            double *to = C + (size_t)i * w;
            if (f == 1 && a[0] != 0)
                for (size_t j = 0; j < w; j++) to[j] += a[0] * b[j];
            for (size_t j = 0; f == 2 && j < w; j += 2) {
                to[j] += a[0] * b[j] - a[1] * b[j + 1];
                to[j + 1] += a[0] * b[j + 1] + a[1] * b[j];
            }
        }
}

static void eqnn__mat_identity(int f, int n, double *A)
{
    memset(A, 0, (size_t)n * (size_t)n * (size_t)f * sizeof *A);
    for (int i = 0; i < n; i++) A[((size_t)i * (size_t)n + (size_t)i) * (size_t)f] = 1;
}

/* B = A^T (no complex conjugate: duals have none) */
static void eqnn__mat_transpose(int f, int n, const double *A, double *B)
{
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++)
            for (int k = 0; k < f; k++)
                B[((size_t)j * (size_t)n + (size_t)i) * (size_t)f + (size_t)k] =
                    A[((size_t)i * (size_t)n + (size_t)j) * (size_t)f + (size_t)k];
}

/* The largest sum of moduli of a row. */
static double eqnn__mat_norm(int f, int n, const double *A)
{
    double most = 0;
    for (int i = 0; i < n; i++) {
        double sum = 0;
        for (int j = 0; j < n; j++) {
            const double *a = A + ((size_t)i * (size_t)n + (size_t)j) * (size_t)f;
            sum += f == 2 ? sqrt(a[0] * a[0] + a[1] * a[1]) : fabs(a[0]);
        }
        if (!(sum <= most)) most = sum;
    }
    return most;
}

/* to -= m from, w numbers; m one number or a pair */
static void eqnn__row_less(int f, size_t w, double *to, const double *from, const double *m)
{
    double re = m[0], im = f == 2 ? m[1] : 0;
    if (re == 0 && im == 0) return;
    for (size_t j = 0; f == 1 && j < w; j++) to[j] -= re * from[j];
    for (size_t j = 0; f == 2 && j < w; j += 2) {
        double x = from[j], y = from[j + 1];
        to[j] -= re * x - im * y;
        to[j + 1] -= re * y + im * x;
    }
}

/* row *= re + i im, w numbers */
static void eqnn__row_times(int f, size_t w, double *row, double re, double im)
{
    for (size_t j = 0; f == 1 && j < w; j++) row[j] *= re;
    for (size_t j = 0; f == 2 && j < w; j += 2) {
        double x = row[j];
        row[j] = re * x - im * row[j + 1];
        row[j + 1] = re * row[j + 1] + im * x;
    }
}

/* n numbers of a and b change places, every stride-th one. */
static void eqnn__swap_doubles(size_t n, double *a, double *b, size_t stride)
{
    for (size_t i = 0; a != b && i < n * stride; i += stride) {
        double t = a[i];
        a[i] = b[i];
        b[i] = t;
    }
}

/* The determinant, always a pair, by elimination with row exchanges; A is spoilt. */
static void eqnn__mat_det(int f, int n, double *A, double det[2])
{
    size_t w = (size_t)n * (size_t)f;
    det[0] = 1;
    det[1] = 0;
    for (int k = 0; k < n; k++) {
        int best = k;
        double most = -1, m[2], re = det[0];
        for (int i = k; i < n; i++) {
            const double *a = A + (size_t)i * w + (size_t)(k * f);
            double size = a[0] * a[0] + (f == 2 ? a[1] * a[1] : 0);
            if (size > most) { most = size; best = i; }
        }
        if (!(most > 0)) { det[0] = det[1] = 0; return; }
        eqnn__swap_doubles(w, A + (size_t)k * w, A + (size_t)best * w, 1);
        double *row = A + (size_t)k * w, a = row[k * f], b = f == 2 ? row[k * f + 1] : 0;
        double sign = best == k ? 1 : -1;
        det[0] = sign * (re * a - det[1] * b);
        det[1] = sign * (re * b + det[1] * a);
        eqnn__row_times(f, w, row, a / most, -b / most); /* the pivot is 1 */
        for (int i = k + 1; i < n; i++) {
            m[0] = A[(size_t)i * w + (size_t)(k * f)];
            m[1] = f == 2 ? A[(size_t)i * w + (size_t)(k * f) + 1] : 0;
            eqnn__row_less(f, w, A + (size_t)i * w, row, m);
        }
    }
}

/* --- products of real matrices --- */

/* C[4][4] += A[4][k] B[k][4], B packed: sixteen sums stay in registers. */
static void eqnn__tile4(int k, const double *A, size_t lda, const double *B, double *C, size_t ldc)
{
    double s[16] = { 0 };
    for (int l = 0; l < k; l++) {
        const double *b = B + 4 * l;
        for (int i = 0; i < 4; i++) {
            double a = A[(size_t)i * lda + (size_t)l];
            for (int j = 0; j < 4; j++) s[4 * i + j] += a * b[j];
        }
    }
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++) C[(size_t)i * ldc + (size_t)j] += s[4 * i + j];
}

/* The same at the rim: C[high][wide], through copies filled up with zeros. */
static void eqnn__tile4_rim(int k, int high, int wide, const double *A, size_t lda, const double *B,
                            double *C, size_t ldc)
{
    double rows[4 * 256], c[16] = { 0 };
    for (int i = 0; i < 4; i++)
        for (int l = 0; l < k; l++) rows[i * k + l] = i < high ? A[(size_t)i * lda + (size_t)l] : 0;
    eqnn__tile4(k, rows, (size_t)k, B, c, 4);
    for (int i = 0; i < high; i++)
        for (int j = 0; j < wide; j++) C[(size_t)i * ldc + (size_t)j] += c[4 * i + j];
}

/* C[m][n] += sign A[m][k] B[k][n]; B goes through a buffer of 256 x 4 numbers. */
static void eqnn__matrix_product(int m, int n, int k, double sign, const double *A, size_t lda,
                                 const double *B, size_t ldb, double *C, size_t ldc)
{
    double pack[4 * 256];
    for (int l0 = 0; l0 < k; l0 += 256)
        for (int j0 = 0; j0 < n; j0 += 4) {
            int deep = k - l0 < 256 ? k - l0 : 256, wide = n - j0 < 4 ? n - j0 : 4;
            for (int l = 0; l < deep; l++) {
                const double *b = B + (size_t)(l0 + l) * ldb + (size_t)j0;
                for (int j = 0; j < 4; j++) pack[4 * l + j] = j < wide ? sign * b[j] : 0;
            }
            for (int i0 = 0; i0 < m; i0 += 4) {
                const double *a = A + (size_t)i0 * lda + (size_t)l0;
                double *c = C + (size_t)i0 * ldc + (size_t)j0;
                int high = m - i0 < 4 ? m - i0 : 4;
                if (high == 4 && wide == 4) eqnn__tile4(deep, a, lda, pack, c, ldc);
                else eqnn__tile4_rim(deep, high, wide, a, lda, pack, c, ldc);
            }
        }
}

/* --- equations --- */

/* B[n][m] becomes A^-1 B by elimination with row exchanges; A is used up. 0: it is singular. */
static int eqnn__z_solve(int n, int m, eqnn__z *A, eqnn__z *B)
{
    size_t N = (size_t)n, M = (size_t)m;
    for (size_t k = 0; k < N; k++) {
        size_t best = k;
        for (size_t i = k + 1; i < N; i++)
            if (eqnn__z_square(A[i * N + k]) > eqnn__z_square(A[best * N + k])) best = i;
        if (!(eqnn__z_square(A[best * N + k]) > 0)) return 0; /* NaN too */
        eqnn__z_swap(N, A + k * N, A + best * N);
        eqnn__z_swap(M, B + k * M, B + best * M);
        for (size_t i = k + 1; i < N; i++) {
            eqnn__z f = eqnn__z_scale(-1, eqnn__z_div(A[i * N + k], A[k * N + k]));
            eqnn__z_axpy(N - k, f, A + k * N + k, A + i * N + k);
            eqnn__z_axpy(M, f, B + k * M, B + i * M);
        }
    }
    for (size_t k = N; k-- > 0;) {
        for (size_t j = 0; j < M; j++) B[k * M + j] = eqnn__z_div(B[k * M + j], A[k * N + k]);
        for (size_t i = 0; i < k; i++)
            eqnn__z_axpy(M, eqnn__z_scale(-1, A[i * N + k]), B + k * M, B + i * M);
    }
    return 1;
}

/* X = A^-1, n x n, entries of one number (field 1) or of pairs (2). condition, unless NULL, gets
   |A| |A^-1|: errors of A grow by that factor. 0: A is singular (condition infinite), or no
   memory. */
static int eqnn__inverse(eqnn_ctx *c, int n, int field, const double *A, double *X,
                         double *condition)
{
    size_t entries = (size_t)n * (size_t)n;
    eqnn__space w;
    eqnn__space_begin(&w, c, 0, "inverse");
    eqnn__z *a = (eqnn__z *)eqnn__space_take(&w, 2 * entries, sizeof *a),
            *x = a ? a + entries : NULL;
    int good = a != NULL;
    if (good) {
        eqnn__z_from(entries, field, A, a);
        for (size_t i = 0; i < (size_t)n; i++) x[i * (size_t)(n + 1)].re = 1;
        double norm = eqnn__mat_norm(2, n, &a->re);
        good = eqnn__z_solve(n, n, a, x);
        if (condition) *condition = good ? norm * eqnn__mat_norm(2, n, &x->re) : (double)INFINITY;
        if (good) eqnn__z_to(entries, field, x, X);
    }
    eqnn__space_back(&w, NULL);
    return good;
}

/* --- matrix exponential --- */

/* out = b0 + b1 A2 + b2 A4 + b3 A6 of n x n matrices, which stand one behind the other in power. */
static void eqnn__even_powers(size_t n, const eqnn__z *power, const double b[4], eqnn__z *out)
{
    for (size_t i = 0; i < n * n; i++) {
        out[i] = eqnn__z_of(i % (n + 1) ? 0 : b[0], 0);
        for (size_t k = 0; k < 3; k++)
            out[i] = eqnn__z_add(out[i], eqnn__z_scale(b[k + 1], power[k * n * n + i]));
    }
}

/* E = exp(A) by the Pade approximant of order 13 and s squarings (N. J. Higham, SIAM J. Matrix
   Anal. Appl. 26, 1179 (2005), doi:10.1137/04061101X): exp(A) = r(A / 2^s)^(2^s), where
   r(A) = p(A) / p(-A) and p = V + U of even and odd part

       U = A (A6 (b13 A6 + b11 A4 + b9 A2) + b7 A6 + b5 A4 + b3 A2 + b1)
       V =    A6 (b12 A6 + b10 A4 + b8 A2) + b6 A6 + b4 A4 + b2 A2 + b0

   Exact to rounding while the norm of A / 2^s is below 5.37. m: room for seven matrices. */
static int eqnn__z_expm(int n, eqnn__z *A, eqnn__z *E, eqnn__z *m)
{
    static const double b[2][2][4] = {
        /* even, odd; low and high powers */
        { { 64764752532480000., 7771770303897600., 129060195264000., 670442572800. },
          { 0, 1323241920., 960960., 182. } },
        { { 32382376266240000., 1187353796428800., 10559470521600., 33522128640. },
          { 0, 40840800., 16380., 1. } }
    };
    double norm = eqnn__mat_norm(2, n, &A->re);
    size_t N = (size_t)n, entries = N * N;
    eqnn__z *A6 = m + 2 * entries, *half[2] = { m + 3 * entries, m + 4 * entries };
    eqnn__z *t = m + 5 * entries, *high = m + 6 * entries;
    int s = 0;
    if (!(norm < 1e15)) return 0;
    for (; norm > 5.37; s++) norm /= 2;
    for (size_t i = 0; i < entries; i++) A[i] = eqnn__z_scale(ldexp(1, -s), A[i]);
    eqnn__z_product(n, A, A, m);
    eqnn__z_product(n, m, m, m + entries);
    eqnn__z_product(n, m, m + entries, A6);
    for (int odd = 0; odd < 2; odd++) {
        eqnn__even_powers(N, m, b[odd][1], high);
        eqnn__z_product(n, A6, high, half[odd]);
        eqnn__even_powers(N, m, b[odd][0], t);
        for (size_t i = 0; i < entries; i++) half[odd][i] = eqnn__z_add(half[odd][i], t[i]);
    }
    eqnn__z_product(n, A, half[1], t);
    for (size_t i = 0; i < entries; i++) {
        E[i] = eqnn__z_add(half[0][i], t[i]);
        half[0][i] = eqnn__z_sub(half[0][i], t[i]);
    }
    if (!eqnn__z_solve(n, n, half[0], E)) return 0;
    for (; s > 0; s--) {
        eqnn__z_product(n, E, E, t);
        memcpy(E, t, entries * sizeof *t);
    }
    return 1;
}

/* E = exp(A), n x n, entries of one number (field 1) or of pairs (2). 0: not finite or an error. */
static int eqnn__expm(eqnn_ctx *c, int n, int field, const double *A, double *E)
{
    size_t entries = (size_t)n * (size_t)n;
    eqnn__space w;
    eqnn__space_begin(&w, c, 0, "expm");
    eqnn__z *m = (eqnn__z *)eqnn__space_take(&w, 9 * entries, sizeof *m);
    int good = m != NULL;
    if (good) {
        eqnn__z_from(entries, field, A, m);
        good = eqnn__z_expm(n, m, m + entries, m + 2 * entries);
        if (good) eqnn__z_to(entries, field, m + entries, E);
    }
    eqnn__space_back(&w, NULL);
    return good;
}

/* --- eigenvalues --- */

/* Two columns (or, with stride 1, rows) x, y of a matrix turn by c, s and the phase e:
       x' = c x - s conj(e) y      y' = s x + c conj(e) y                                      */
static void eqnn__z_turn(size_t n, eqnn__z *x, eqnn__z *y, size_t stride, double c, double s,
                         eqnn__z e)
{
    for (size_t i = 0; i < n * stride; i += stride) {
        eqnn__z a = x[i], b = eqnn__z_mul(eqnn__z_conj(e), y[i]);
        x[i] = eqnn__z_of(c * a.re - s * b.re, c * a.im - s * b.im);
        y[i] = eqnn__z_of(s * a.re + c * b.re, s * a.im + c * b.im);
    }
}

/* Makes entry p, q of the Hermitian A zero. */
static void eqnn__z_rotate(size_t n, size_t p, size_t q, eqnn__z *A, eqnn__z *X)
{
    double size = eqnn__z_abs(A[p * n + q]);
    eqnn__z phase = eqnn__z_scale(1 / size, A[p * n + q]);
    double theta = (A[q * (n + 1)].re - A[p * (n + 1)].re) / (2 * size);
    double t = (theta < 0 ? -1 : 1) / (fabs(theta) + sqrt(theta * theta + 1));
    double c = 1 / sqrt(1 + t * t), s = t * c;
    eqnn__z_turn(n, A + p, A + q, n, c, s, phase);
    eqnn__z_turn(n, A + p * n, A + q * n, 1, c, s, eqnn__z_conj(phase));
    eqnn__z_turn(n, X + p, X + q, n, c, s, phase);
}

/* Eigenvalues e[n] of a Hermitian matrix A[n][n], which is used up, and its eigenvectors, the
   columns of the unitary X, by Jacobi's rotations (J. reine angew. Math. 30, 51 (1846)): each makes
   one pair of off-diagonal entries zero and takes their squares off what is left, so the method
   always converges, and fast at the end. For small matrices: n^3 with a large factor. 0: not
   finite. */
static int eqnn__z_eigen(int n, eqnn__z *A, double *e, eqnn__z *X)
{
    size_t N = (size_t)n;
    for (size_t i = 0; i < N * N; i++) X[i] = eqnn__z_of(i % (N + 1) ? 0 : 1, 0);
    for (int sweep = 0; sweep < 60; sweep++) {
        double off = 0, all = 0;
        for (size_t i = 0; i < N * N; i++) {
            all += eqnn__z_square(A[i]);
            if (i % (N + 1)) off += eqnn__z_square(A[i]);
        }
        if (off <= 1e-31 * (double)N * all) { /* rounding leaves about N eps^2 */
            for (size_t i = 0; i < N; i++) e[i] = A[i * (N + 1)].re;
            return 1;
        }
        for (size_t p = 0; p < N; p++)
            for (size_t q = p + 1; q < N; q++)
                if (eqnn__z_square(A[p * N + q]) > 1e-33 * all / (double)(N * N))
                    eqnn__z_rotate(N, p, q, A, X);
    }
    return 0;
}

/* --- null spaces --- */

/* x becomes the v of the reflection 1 - s v v^H that takes it to a multiple of the first axis;
   returns s = 2 / v^H v. */
static double eqnn__z_reflector(size_t n, eqnn__z *x)
{
    double norm = eqnn__z_norm(n, x), first = eqnn__z_abs(x[0]);
    eqnn__z phase = first > 0 ? eqnn__z_scale(1 / first, x[0]) : eqnn__z_of(1, 0);
    if (norm == 0) return 0;
    x[0] = eqnn__z_add(x[0], eqnn__z_scale(norm, phase));
    return 1 / (norm * (norm + first));
}

static void eqnn__z_reflect(size_t n, const eqnn__z *v, double s, eqnn__z *x)
{
    eqnn__z_axpy(n, eqnn__z_scale(-s, eqnn__z_dot(n, v, x)), v, x);
}

/* Orthonormal vectors N[found][n] with A N = 0, where A[rows][n] is used up. The columns of A^H =
   Q R are taken by falling length (Businger and Golub, Numer. Math. 7, 269 (1965)) down to the
   length zero, which belongs to rounding errors; the other columns of Q are the null space. N has
   room for n vectors. Returns how many; -1: no memory. */
static int eqnn__z_null(eqnn__space *w, int rows, int n, eqnn__z *A, double zero, eqnn__z *N)
{
    size_t d = (size_t)n, count = (size_t)rows, rank = 0;
    double *s = eqnn__space_doubles(w, d + 1, 1);
    if (!s) return -1;
    for (size_t i = 0; i < count * d; i++) A[i] = eqnn__z_conj(A[i]); /* rows: the columns of A^H */
    for (; rank < d && rank < count; rank++) {
        size_t best = rank;
        double most = -1;
        for (size_t r = rank; r < count; r++) {
            double length = eqnn__z_norm(d - rank, A + r * d + rank);
            if (length > most) most = length, best = r;
        }
        if (!(most > zero)) break;
        eqnn__z *v = A + rank * d + rank;
        eqnn__z_swap(d, A + rank * d, A + best * d);
        s[rank] = eqnn__z_reflector(d - rank, v);
        for (size_t r = rank + 1; r < count; r++)
            eqnn__z_reflect(d - rank, v, s[rank], A + r * d + rank);
    }
    for (size_t i = rank; i < d; i++) {
        eqnn__z *x = N + (i - rank) * d;
        for (size_t j = 0; j < d; j++) x[j] = eqnn__z_of(j == i, 0);
        for (size_t k = rank; k-- > 0;) eqnn__z_reflect(d - k, A + k * d + k, s[k], x + k);
    }
    return n - (int)rank;
}

/* Column k of the Cholesky factor, from the matrix as it was when column `from` was made, less the
   columns since then; d: what is left of the diagonal. */
static void eqnn__cholesky_column(size_t n, size_t from, size_t k, const double *G, double *L,
                                  double *d)
{
    double root = sqrt(d[k]);
    L[k * n + k] = root;
    for (size_t j = k + 1; j < n; j++) {
        double s = G[k * n + j];
        for (size_t c = from; c < k; c++) s -= L[k * n + c] * L[j * n + c];
        L[j * n + k] = s / root;
        d[j] -= L[j * n + k] * L[j * n + k];
    }
}

/* P^T G P = L L^T of a positive semidefinite G[n][n], which is used up: the largest diagonal entry
   left comes next, until it is below tolerance times the first. order[n] is P; of L[n][n] rank
   columns count, which is returned; room[33 n]. 32 columns are made from the old matrix, which
   then is brought up to date by one matrix product. */
static int eqnn__cholesky(size_t n, double *G, double tolerance, int *order, double *L,
                          double *room)
{
    double first = 0, *d = room, *block = room + n;
    size_t from = 0;
    for (size_t i = 0; i < n; i++) order[i] = (int)i, d[i] = G[i * n + i];
    for (size_t k = 0; k < n; k++) {
        size_t best = k, next = k + 1, wide = next - from, rest = n - next;
        for (size_t j = k + 1; j < n; j++)
            if (d[j] > d[best]) best = j;
        if (k == 0) first = d[best];
        if (!(d[best] > tolerance * first)) return (int)k;
        eqnn__swap_doubles(n, G + k * n, G + best * n, 1);
        eqnn__swap_doubles(n, G + k, G + best, n);
        eqnn__swap_doubles(k, L + k * n, L + best * n, 1);
        eqnn__swap_doubles(1, d + k, d + best, 1);
        int t = order[k];
        order[k] = order[best], order[best] = t;
        eqnn__cholesky_column(n, from, k, G, L, d);
        if (wide < 32) continue;
        for (size_t c = 0; c < wide; c++)
            for (size_t j = 0; j < rest; j++) block[c * rest + j] = L[(next + j) * n + from + c];
        eqnn__matrix_product((int)rest, (int)rest, (int)wide, -1, L + next * n + from, n, block,
                             rest, G + next * n + next, n);
        from = next;
    }
    return (int)n;
}

/* Rows of Q[count][n] become orthonormal by modified Gram-Schmidt, twice each; those that are
   nearly combinations of the ones before are left out. Returns how many stay. */
static int eqnn__orthonormalise(size_t n, int count, double *Q, double tolerance)
{
    int kept = 0;
    for (int q = 0; q < count; q++) {
        double *x = Q + (size_t)kept * n, before = 0, after = 0;
        if (kept != q) memcpy(x, Q + (size_t)q * n, n * sizeof *x);
        for (size_t i = 0; i < n; i++) before += x[i] * x[i];
        for (int pass = 0; pass < 2; pass++)
            for (int p = 0; p < kept; p++) {
                const double *y = Q + (size_t)p * n;
                double dot = 0;
                for (size_t i = 0; i < n; i++) dot += x[i] * y[i];
                for (size_t i = 0; i < n; i++) x[i] -= dot * y[i];
            }
        for (size_t i = 0; i < n; i++) after += x[i] * x[i];
        if (!(after > tolerance * tolerance * before)) continue;
        for (size_t i = 0; i < n; i++) x[i] /= sqrt(after);
        kept++;
    }
    return kept;
}

/* ------------------------------------------------------------------------------------------------
   2 >>groups
   ---------------------------------------------------------------------------------------------- */

struct eqnn_group {
    eqnn_ctx *ctx;
    const char *name;
    int dim, lie, discrete;
    int field;            /* numbers in an entry: 1 real, 2 complex                        */
    const double *A;      /* [lie][dim][dim][field] Lie generators                         */
    const double *h;      /* [discrete][dim][dim][field]; NULL of large permutation groups */
    const double *scale;  /* [lie] of published samples                                    */
    int orthogonal, permutation;
    const int *perm;      /* [discrete][dim] of a permutation group: (h v)[i] = v[perm[i]] */
    uint64_t key;         /* hash of the generators: the same in every process             */
    int apart;            /* its name tells it from others of the same generators          */
    int sampler;          /* how uniform elements are made, and of what                    */
    const eqnn_group *part[2];
    const int *places;
    const double *element; /* a finite group's elements, listed when first sampled         */
    int elements;
    struct eqnn_group *next;
};

/* Names under which groups were made. */
typedef struct eqnn__group_name {
    const char *name;
    const eqnn_group *group;
    struct eqnn__group_name *next;
} eqnn__group_name;

/* All groups, atoms, monomials and solutions of a context; eqnn_ctx.groups. */
typedef struct eqnn__groups {
    eqnn_group *group;
    eqnn__group_name *names;
    struct eqnn_rep *rep;
    struct eqnn__atom *atom;
    struct eqnn__monomial *monomial;
    struct eqnn__rep_maps *maps;
    struct eqnn__rep_products *products;
    struct eqnn__rep_gate *gates;
    struct eqnn__emlp_seen *emlp; /* networks that were tried */
    eqnn_basis_opts opts;
    const char *path; /* of the file of bases, or NULL */
    struct eqnn_lie *lie;
    struct eqnn__plan *plans; /* of the forms of sections 6 to 8 */
    struct eqnn__basis_record *record; /* bases that are known: solved here, or read */
} eqnn__groups;

static eqnn__groups *eqnn__groups_of(eqnn_ctx *c)
{
    if (!c->groups) c->groups = (eqnn__groups *)eqnn__keep_alloc(c, sizeof *c->groups);
    return c->groups;
}

/* NULL is no group. */
static int eqnn__group_at_home(eqnn_ctx *c, const eqnn_group *g, const char *op)
{
    return !g || eqnn__at_home(c, g->ctx, op, "the group");
}

/* --- a group in the making --- */

/* Dense generators, or permutations alone: (h v)[i] = v[perm[i]]. */
typedef struct eqnn__draft {
    eqnn_ctx *c;
    const char *name;
    int dim, lie, discrete, field;
    int apart;                       /* another group than others of such generators */
    int sampler;                     /* one of the list below, and what it needs */
    const eqnn_group *part[2];
    const int *places;
    double *A, *h, *scale;
    int *perm;
} eqnn__draft;

/* How uniform random elements are made. */
enum {
    EQNN__SAMPLE_WALK,   /* not known: as published, or long words of a finite group          */
    EQNN__SAMPLE_LISTED, /* all elements are listed                                           */
    EQNN__SAMPLE_SO, EQNN__SAMPLE_O, EQNN__SAMPLE_U, EQNN__SAMPLE_SU,
    EQNN__SAMPLE_S, EQNN__SAMPLE_ALT,
    EQNN__SAMPLE_PRODUCT, EQNN__SAMPLE_EMBED, EQNN__SAMPLE_REAL /* by the parts */
};

/* Permutation groups up to this many numbers have their matrices beside the permutations. */
#define EQNN__DENSE ((size_t)1 << 22)

static size_t eqnn__square(int dim, int field)
{
    return (size_t)dim * (size_t)dim * (size_t)field;
}

/* Room for so many generators, all zero. */
static int eqnn__draft_open(eqnn__draft *d, int dim, int lie, int discrete, int field, int perms)
{
    double bytes = ((double)lie + (perms ? 0 : discrete)) * dim * dim * field * 8;
    d->dim = dim;
    d->lie = lie;
    d->discrete = discrete;
    d->field = field;
    if (dim < 1 || lie < 0 || discrete < 0) {
        eqnn__fail(d->c, "group %s: %d dimensions, %d Lie and %d discrete generators make no sense",
                   d->name, dim, lie, discrete);
        return 0;
    }
    if (bytes > 4e9 || (double)discrete * dim > 1e9) {
        eqnn__fail(d->c, "group %s: %d generators of %d x %d numbers need %.3g bytes", d->name,
                   lie + discrete, dim, dim, bytes);
        return 0;
    }
    size_t n = eqnn__square(dim, field);
    d->A = (double *)eqnn__take(d->c, (size_t)lie * n, sizeof *d->A);
    d->scale = (double *)eqnn__take(d->c, (size_t)lie, sizeof *d->scale);
    if (perms) d->perm = (int *)eqnn__take(d->c, (size_t)discrete * (size_t)dim, sizeof(int));
    else d->h = (double *)eqnn__take(d->c, (size_t)discrete * n, sizeof *d->h);
    for (int k = 0; d->scale && k < lie; k++) d->scale[k] = 1;
    return d->A && d->scale && (d->h || d->perm);
}

static void eqnn__draft_free(eqnn__draft *d)
{
    size_t n = eqnn__square(d->dim, d->field);
    eqnn__drop(d->c, d->perm, (size_t)d->discrete * (size_t)d->dim, sizeof(int));
    eqnn__drop(d->c, d->h, (size_t)d->discrete * n, sizeof *d->h);
    eqnn__drop(d->c, d->scale, (size_t)d->lie, sizeof *d->scale);
    eqnn__drop(d->c, d->A, (size_t)d->lie * n, sizeof *d->A);
}

/* Where entry (i, j) of generator k stands in a list of them. */
static size_t eqnn__entry_at(const eqnn__draft *d, int k, int i, int j)
{
    size_t dim = (size_t)d->dim;
    return (((size_t)k * dim + (size_t)i) * dim + (size_t)j) * (size_t)d->field;
}

static double *eqnn__lie_at(const eqnn__draft *d, int k, int i, int j)
{
    return d->A + eqnn__entry_at(d, k, i, j);
}

static double *eqnn__discrete_at(const eqnn__draft *d, int k, int i, int j)
{
    return d->h + eqnn__entry_at(d, k, i, j);
}

/* Generators are the same permutations: then these are enough. */
static int eqnn__find_permutations(eqnn__draft *d)
{
    int n = d->dim, good = d->field == 1 && d->lie == 0;
    for (int k = 0; good && k < d->discrete; k++)
        for (int i = 0; good && i < n; i++) {
            int ones = 0, others = 0;
            for (int j = 0; j < n; j++) {
                double a = *eqnn__discrete_at(d, k, i, j), b = *eqnn__discrete_at(d, k, j, i);
                ones += (a == 1) + (b == 1);            /* in row i and in column i */
                others += (a != 0 && a != 1) + (b != 0 && b != 1);
            }
            good = ones == 2 && others == 0;
        }
    if (!good) return 1;
    d->perm = (int *)eqnn__take(d->c, (size_t)d->discrete * (size_t)n, sizeof(int));
    for (int k = 0; d->perm && k < d->discrete; k++)
        for (int i = 0; i < n; i++)
            for (int j = 0; j < n; j++)
                if (*eqnn__discrete_at(d, k, i, j) == 1) d->perm[k * n + i] = j;
    return d->perm != NULL;
}

/* All elements are orthogonal when every A is antisymmetric, A + A^T = 0, and h^T h = 1: up to
   what single precision leaves, relative to the largest entry. */
static int eqnn__find_orthogonal(eqnn__draft *d)
{
    int n = d->dim;
    if (d->field == 2) return 0;
    for (int k = 0; k < d->lie; k++) {
        double most = 0, off = 0;
        for (int i = 0; i < n; i++)
            for (int j = 0; j < n; j++) {
                double a = *eqnn__lie_at(d, k, i, j);
                most = fmax(most, fabs(a));
                off = fmax(off, fabs(a + *eqnn__lie_at(d, k, j, i)));
            }
        if (off > 1e-6 * most) return 0;
    }
    for (int k = 0; k < d->discrete; k++)
        for (int i = 0; i < n; i++)
            for (int j = 0; j <= i; j++) {
                double sum = i == j ? -1 : 0;
                for (int r = 0; r < n; r++)
                    sum += *eqnn__discrete_at(d, k, r, i) * *eqnn__discrete_at(d, k, r, j);
                if (fabs(sum) > 1e-6) return 0;
            }
    return 1;
}

/* --- content: identity and key --- */

/* The same bytes on machines of either byte order. */
static uint64_t eqnn__hash_int(uint64_t h, int64_t x)
{
    unsigned char b[8];
    for (int i = 0; i < 8; i++) b[i] = (unsigned char)((uint64_t)x >> (8 * i));
    return eqnn__hash(h, b, 8);
}

/* Numbers are hashed with 36 bits relative to the largest of them, so that what another machine's
   cosine changes in the last place changes no key. */
static uint64_t eqnn__hash_numbers(uint64_t h, const double *x, size_t n)
{
    double most = 0;
    int e = 0;
    for (size_t i = 0; i < n; i++) most = fmax(most, fabs(x[i]));
    frexp(most * (1 + 1e-9), &e);
    h = eqnn__hash_int(h, e);
    for (size_t i = 0; i < n; i++) h = eqnn__hash_int(h, (int64_t)floor(ldexp(x[i], 36 - e) + 0.5));
    return h;
}

static uint64_t eqnn__draft_key(const eqnn__draft *d)
{
    size_t n = eqnn__square(d->dim, d->field), lie = (size_t)d->lie, discrete = (size_t)d->discrete;
    uint64_t h = EQNN__HASH;
    h = eqnn__hash_int(h, d->dim);
    h = eqnn__hash_int(h, d->field);
    h = eqnn__hash_int(h, d->lie);
    h = eqnn__hash_int(h, d->discrete);
    for (size_t k = 0; k < lie; k++) h = eqnn__hash_numbers(h, d->A + k * n, n);
    if (!d->perm)
        for (size_t k = 0; k < discrete; k++) h = eqnn__hash_numbers(h, d->h + k * n, n);
    for (size_t i = 0; d->perm && i < discrete * (size_t)d->dim; i++)
        h = eqnn__hash_int(h, d->perm[i]);
    return h;
}

static int eqnn__group_equal(const eqnn_group *g, const eqnn__draft *d, uint64_t key)
{
    size_t n = eqnn__square(d->dim, d->field) * sizeof(double);
    if (g->key != key || g->dim != d->dim || g->field != d->field || g->lie != d->lie ||
        g->discrete != d->discrete || !g->perm != !d->perm || g->apart != d->apart ||
        (d->apart && strcmp(g->name, d->name)))
        return 0;
    if (memcmp(g->A, d->A, (size_t)d->lie * n)) return 0;
    return d->perm ? !memcmp(g->perm, d->perm, (size_t)d->discrete * (size_t)d->dim * sizeof(int))
                   : !memcmp(g->h, d->h, (size_t)d->discrete * n);
}

static void *eqnn__keep_copy(eqnn_ctx *c, const void *from, size_t n, size_t size)
{
    void *p = eqnn__keep_alloc(c, n * size);
    if (p && n) memcpy(p, from, n * size);
    return p;
}

/* Matrices of permutations. */
static void eqnn__dense_of(const int *perm, int count, int dim, double *out)
{
    memset(out, 0, (size_t)count * eqnn__square(dim, 1) * sizeof *out);
    for (size_t i = 0; i < (size_t)count * (size_t)dim; i++)
        out[i * (size_t)dim + (size_t)perm[i]] = 1;
}

/* The group's own memory for what a draft holds. */
static int eqnn__group_fill(eqnn_group *g, const eqnn__draft *d)
{
    size_t n = eqnn__square(d->dim, d->field), lie = (size_t)d->lie, discrete = (size_t)d->discrete;
    g->A = (double *)eqnn__keep_copy(g->ctx, d->A, lie * n, sizeof(double));
    g->scale = (double *)eqnn__keep_copy(g->ctx, d->scale, lie, sizeof(double));
    if (d->perm) {
        g->perm = (int *)eqnn__keep_copy(g->ctx, d->perm, discrete * (size_t)d->dim, sizeof(int));
        if (discrete * n <= EQNN__DENSE) {
            double *h = (double *)eqnn__keep_alloc(g->ctx, discrete * n * sizeof *h);
            if (h) eqnn__dense_of(d->perm, d->discrete, d->dim, h);
            g->h = h;
        }
        return g->A && g->scale && g->perm && (g->h || discrete * n > EQNN__DENSE);
    }
    g->h = (double *)eqnn__keep_copy(g->ctx, d->h, discrete * n, sizeof(double));
    return g->A && g->scale && g->h;
}

static const eqnn_group *eqnn__group_lookup(eqnn_ctx *c, const char *name)
{
    eqnn__groups *all = eqnn__groups_of(c);
    for (eqnn__group_name *a = all ? all->names : NULL; a; a = a->next)
        if (!strcmp(a->name, name)) return a->group;
    return NULL;
}

/* Remembers the name. */
static const eqnn_group *eqnn__group_named(const eqnn_group *g, const char *name)
{
    eqnn__groups *all = eqnn__groups_of(g->ctx);
    for (eqnn__group_name *a = all->names; a; a = a->next)
        if (a->group == g && !strcmp(a->name, name)) return g;
    eqnn__group_name *a = (eqnn__group_name *)eqnn__keep_alloc(g->ctx, sizeof *a);
    if (a) a->name = eqnn__keep_string(g->ctx, name);
    if (!a || !a->name) return NULL;
    a->group = g;
    a->next = all->names;
    all->names = a;
    return g;
}

/* The one group of such generators. A group met again under a name that tells more about it is
   sampled that way from then on. */
static const eqnn_group *eqnn__draft_group(eqnn__draft *d)
{
    eqnn__groups *all = eqnn__groups_of(d->c);
    if (!all || (!d->perm && !eqnn__find_permutations(d))) return NULL;
    for (size_t i = 0; i < (size_t)d->lie * eqnn__square(d->dim, d->field); i++) d->A[i] += 0.0;
    for (size_t i = 0; d->h && i < (size_t)d->discrete * eqnn__square(d->dim, d->field); i++)
        d->h[i] += 0.0;                                  /* no minus zeros */
    uint64_t key = eqnn__draft_key(d);
    eqnn_group *g = all->group;
    while (g && !eqnn__group_equal(g, d, key)) g = g->next;
    const eqnn_group *named = eqnn__group_lookup(d->c, d->name);
    if (named && named != g)
        return (const eqnn_group *)eqnn__fail(
            d->c, "group %s: the name belongs to another group", d->name);
    if (!g) {
        g = (eqnn_group *)eqnn__keep_alloc(d->c, sizeof *g);
        if (!g) return NULL;
        g->ctx = d->c;
        g->name = eqnn__keep_string(d->c, d->name);
        g->dim = d->dim;
        g->lie = d->lie;
        g->discrete = d->discrete;
        g->field = d->field;
        g->key = key;
        g->apart = d->apart;
        g->permutation = d->perm != NULL;
        g->orthogonal = g->permutation || eqnn__find_orthogonal(d);
        if (!g->name || !eqnn__group_fill(g, d)) return NULL;
        g->next = all->group;
        all->group = g;
    }
    if (g->sampler == EQNN__SAMPLE_WALK) {
        g->sampler = d->sampler;
        g->part[0] = d->part[0];
        g->part[1] = d->part[1];
        g->places = d->places;
    }
    return eqnn__group_named(g, d->name);
}

/* --- the groups we know; A_ij below is the generator with that entry --- */

static int eqnn__fill_trivial(eqnn__draft *d, const int *a)
{
    return eqnn__draft_open(d, a[0], 0, 0, 1, 1);
}

/* Lie generators k, k+1, ... of the rotations of n coordinates from first on: E_ij - E_ji, i > j */
static int eqnn__fill_rotations(eqnn__draft *d, int k, int first, int n)
{
    for (int i = 0; i < n; i++)
        for (int j = 0; j < i; j++, k++) {
            *eqnn__lie_at(d, k, first + i, first + j) = 1;
            *eqnn__lie_at(d, k, first + j, first + i) = -1;
        }
    return k;
}

/* Discrete generator k is diagonal: entries from .. to - 1 are -1, the others 1. */
static void eqnn__fill_signs(eqnn__draft *d, int k, int from, int to)
{
    for (int i = 0; i < d->dim; i++) *eqnn__discrete_at(d, k, i, i) = i >= from && i < to ? -1 : 1;
}

static int eqnn__fill_so(eqnn__draft *d, const int *a)
{
    int n = a[0];
    if (!eqnn__draft_open(d, n, n * (n - 1) / 2, 0, 1, 0)) return 0;
    eqnn__fill_rotations(d, 0, 0, n);
    return 1;
}

static int eqnn__fill_o(eqnn__draft *d, const int *a)
{
    int n = a[0];
    if (!eqnn__draft_open(d, n, n * (n - 1) / 2, 1, 1, 0)) return 0;
    eqnn__fill_rotations(d, 0, 0, n);
    eqnn__fill_signs(d, 0, 0, 1);
    return 1;
}

/* One k-th of a full turn; quarters are exact. */
static int eqnn__fill_turns(eqnn__draft *d, int k, int mirror)
{
    double angle = 2 * EQNN__PI / k;
    double co = k == 1 ? 1 : k == 2 ? -1 : k == 4 ? 0 : eqnn__sin_quarter(angle, 1);
    double si = k == 1 || k == 2 ? 0 : k == 4 ? 1 : eqnn__sin_quarter(angle, 0);
    if (!eqnn__draft_open(d, 2, 0, 1 + mirror, 1, 0)) return 0;
    *eqnn__discrete_at(d, 0, 0, 0) = *eqnn__discrete_at(d, 0, 1, 1) = co;
    *eqnn__discrete_at(d, 0, 0, 1) = si;
    *eqnn__discrete_at(d, 0, 1, 0) = -si;
    if (mirror) eqnn__fill_signs(d, 1, 0, 1);
    return 1;
}

static int eqnn__fill_c(eqnn__draft *d, const int *a) { return eqnn__fill_turns(d, a[0], 0); }
static int eqnn__fill_d(eqnn__draft *d, const int *a) { return eqnn__fill_turns(d, a[0], 1); }

static int eqnn__fill_scaling(eqnn__draft *d, const int *a)
{
    if (!eqnn__draft_open(d, a[0], 1, 0, 1, 0)) return 0;
    for (int i = 0; i < a[0]; i++) *eqnn__lie_at(d, 0, i, i) = 1;
    return 1;
}

static int eqnn__fill_parity(eqnn__draft *d, const int *a)
{
    (void)a;
    if (!eqnn__draft_open(d, 4, 0, 1, 1, 0)) return 0;
    eqnn__fill_signs(d, 0, 1, 4);
    return 1;
}

static int eqnn__fill_time(eqnn__draft *d, const int *a)
{
    (void)a;
    if (!eqnn__draft_open(d, 4, 0, 1, 1, 0)) return 0;
    eqnn__fill_signs(d, 0, 0, 1);
    return 1;
}

/* p coordinates of time, then q of space: the boosts E_ij + E_ji, the rotations of each, and in
   components: 1 none, 2 the element that turns an odd number of both around, 4 time alone too. */
static int eqnn__fill_metric(eqnn__draft *d, int p, int q, int components)
{
    int n = p + q, k = 0, pairs = p * (p - 1) / 2 + q * (q - 1) / 2;
    if (!eqnn__draft_open(d, n, p * q + pairs, components / 2, 1, 0)) return 0;
    for (int j = 0; j < p; j++)
        for (int i = p; i < n; i++, k++) {
            *eqnn__lie_at(d, k, i, j) = *eqnn__lie_at(d, k, j, i) = 1;
            d->scale[k] = n > 2 ? 0.3 : 1;           /* as published */
        }
    k = eqnn__fill_rotations(d, k, 0, p);
    eqnn__fill_rotations(d, k, p, q);
    if (components > 1 && p % 2 == 1 && q % 2 == 1) eqnn__fill_signs(d, 0, 0, n);
    else if (components > 1) {
        eqnn__fill_signs(d, 0, 0, 1);
        *eqnn__discrete_at(d, 0, n - 1, n - 1) = -1;
    }
    if (components > 2) eqnn__fill_signs(d, 1, 0, 1);
    return 1;
}

static int eqnn__fill_connected(eqnn__draft *d, const int *a)
{
    return eqnn__fill_metric(d, a[0], a[1], 1);
}
static int eqnn__fill_sopq(eqnn__draft *d, const int *a)
{
    return eqnn__fill_metric(d, a[0], a[1], 2);
}
static int eqnn__fill_opq(eqnn__draft *d, const int *a)
{
    return eqnn__fill_metric(d, a[0], a[1], 4);
}
static int eqnn__fill_lorentz(eqnn__draft *d, const int *a)
{
    (void)a;
    return eqnn__fill_metric(d, 1, 3, 4);
}

/* exp of these keeps the form x^T J y, J = [[0, 1], [-1, 0]]: symplectic */
static int eqnn__fill_sp(eqnn__draft *d, const int *a)
{
    int m = a[0], k = 0;
    if (!eqnn__draft_open(d, 2 * m, m * (2 * m + 1), 0, 1, 0)) return 0;
    for (int i = 0; i < m; i++)
        for (int j = 0; j < m; j++, k++) {
            *eqnn__lie_at(d, k, i, j) = 1;
            *eqnn__lie_at(d, k, m + j, m + i) = -1;
        }
    for (int i = 0; i < m; i++)
        for (int j = 0; j <= i; j++, k += 2) {
            *eqnn__lie_at(d, k, m + i, j) = *eqnn__lie_at(d, k, m + j, i) = 1;
            *eqnn__lie_at(d, k + 1, i, m + j) = *eqnn__lie_at(d, k + 1, j, m + i) = 1;
        }
    return 1;
}

/* cyclic shift: (h v)[i] = v[i - 1] */
static int eqnn__fill_z(eqnn__draft *d, const int *a)
{
    if (!eqnn__draft_open(d, a[0], 0, 1, 1, 1)) return 0;
    for (int i = 0; i < a[0]; i++) d->perm[i] = (i + a[0] - 1) % a[0];
    return 1;
}

/* generator k exchanges 0 and k + 1 */
static int eqnn__fill_s(eqnn__draft *d, const int *a)
{
    int n = a[0];
    if (!eqnn__draft_open(d, n, 0, n - 1, 1, 1)) return 0;
    for (int k = 0; k < n - 1; k++) {
        for (int i = 0; i < n; i++) d->perm[k * n + i] = i;
        d->perm[k * n] = k + 1;
        d->perm[k * n + k + 1] = 0;
    }
    return 1;
}

/* generator k is the cycle (0, 1, k + 2) */
static int eqnn__fill_alt(eqnn__draft *d, const int *a)
{
    int n = a[0], m = n > 2 ? n - 2 : 0;
    if (!eqnn__draft_open(d, n, 0, m, 1, 1)) return 0;
    for (int k = 0; k < m; k++) {
        for (int i = 0; i < n; i++) d->perm[k * n + i] = i;
        d->perm[k * n] = 1;
        d->perm[k * n + 1] = k + 2;
        d->perm[k * n + k + 2] = 0;
    }
    if (n < 3) d->sampler = EQNN__SAMPLE_LISTED;
    return 1;
}

static int eqnn__fill_sl(eqnn__draft *d, const int *a)
{
    int n = a[0], k = 0;
    if (!eqnn__draft_open(d, n, n * n - 1, 0, 1, 0)) return 0;
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++)
            if (i != j) *eqnn__lie_at(d, k++, i, j) = 1;
    for (int i = 0; i < n - 1; i++, k++) {
        *eqnn__lie_at(d, k, i, i) = 1;
        *eqnn__lie_at(d, k, n - 1, n - 1) = -1;
    }
    return 1;
}

static int eqnn__fill_gl(eqnn__draft *d, const int *a)
{
    int n = a[0];
    if (!eqnn__draft_open(d, n, n * n, 0, 1, 0)) return 0;
    for (int k = 0; k < n * n; k++) *eqnn__lie_at(d, k, k / n, k % n) = 1;
    return 1;
}

/* For i > j: E_ij - E_ji and i (E_ij + E_ji), which SU(n) and U(n) have in common. */
static int eqnn__fill_unitary(eqnn__draft *d, int n, int lie)
{
    int k = 0;
    if (!eqnn__draft_open(d, n, lie, 0, 2, 0)) return -1;
    for (int i = 0; i < n; i++)
        for (int j = 0; j < i; j++, k += 2) {
            eqnn__lie_at(d, k, i, j)[0] = 1;
            eqnn__lie_at(d, k, j, i)[0] = -1;
            eqnn__lie_at(d, k + 1, i, j)[1] = eqnn__lie_at(d, k + 1, j, i)[1] = 1;
        }
    return k;
}

static int eqnn__fill_u(eqnn__draft *d, const int *a)
{
    int n = a[0], k = eqnn__fill_unitary(d, n, n * n);
    for (int i = 0; k >= 0 && i < n; i++) eqnn__lie_at(d, k + i, i, i)[1] = 1;
    return k >= 0;
}

static int eqnn__fill_su(eqnn__draft *d, const int *a)
{
    int n = a[0], k = eqnn__fill_unitary(d, n, n * n - 1);
    for (int i = 0; k >= 0 && i < n - 1; i++)
        for (int j = 0; j < n; j++)
            eqnn__lie_at(d, k + i, j, j)[1] = j == i ? 1 : -1.0 / (n - 1);
    return k >= 0;
}

/* The faces U F R B L D of a cube, turned about F and about L. */
static int eqnn__fill_cube(eqnn__draft *d, const int *a)
{
    static const int turns[12] = { 4, 1, 0, 3, 5, 2, 3, 0, 2, 5, 4, 1 };
    (void)a;
    if (!eqnn__draft_open(d, 6, 0, 2, 1, 1)) return 0;
    memcpy(d->perm, turns, sizeof turns);
    return 1;
}

/* Quarter turns of the faces U F R B L D of Rubik's cube, counter-clockwise seen from outside, on
   48 stickers: eight a face (row by row without the middle one), faces in that order. On the
   turned face sticker i gets that of own[i]; of the four rows of three beside it each gets the
   next one's, the last the first's. */
static int eqnn__fill_stickers(eqnn__draft *d, const int side[6][4][3])
{
    static const int own[8] = { 2, 4, 7, 1, 6, 0, 3, 5 };
    if (!eqnn__draft_open(d, 48, 0, 6, 1, 1)) return 0;
    for (int f = 0; f < 6; f++) {
        int *p = d->perm + 48 * f;
        for (int i = 0; i < 48; i++) p[i] = i;
        for (int i = 0; i < 8; i++) p[8 * f + i] = 8 * f + own[i];
        for (int k = 0; k < 4; k++)
            for (int i = 0; i < 3; i++) p[side[f][k][i]] = side[f][(k + 1) % 4][i];
    }
    return 1;
}

static int eqnn__fill_rubik(eqnn__draft *d, const int *a)
{
    static const int side[6][4][3] = {
        { { 8, 9, 10 }, { 32, 33, 34 }, { 24, 25, 26 }, { 16, 17, 18 } },
        { { 5, 6, 7 }, { 16, 19, 21 }, { 42, 41, 40 }, { 39, 36, 34 } },
        { { 2, 4, 7 }, { 29, 27, 24 }, { 42, 44, 47 }, { 10, 12, 15 } },
        { { 0, 1, 2 }, { 37, 35, 32 }, { 47, 46, 45 }, { 18, 20, 23 } },
        { { 0, 3, 5 }, { 8, 11, 13 }, { 40, 43, 45 }, { 31, 28, 26 } },
        { { 13, 14, 15 }, { 21, 22, 23 }, { 29, 30, 31 }, { 37, 38, 39 } } };
    (void)a;
    return eqnn__fill_stickers(d, side);
}

/* As in the EMLP paper's code, where the top rows of four faces go round whatever face is turned:
   not the cube's group but a much larger one. */
static int eqnn__fill_legacy(eqnn__draft *d, const int *a)
{
    static const int face[6][4] = { { 1, 4, 3, 2 }, { 0, 2, 5, 4 }, { 0, 3, 5, 1 },
                                    { 0, 4, 5, 2 }, { 0, 1, 5, 3 }, { 1, 2, 3, 4 } };
    int side[6][4][3];
    (void)a;
    for (int f = 0; f < 6; f++)
        for (int k = 0; k < 4; k++)
            for (int i = 0; i < 3; i++) side[f][k][i] = 8 * face[f][k] + i;
    return eqnn__fill_stickers(d, (const int(*)[4][3])side);
}

/* On the corners (r, i, j) of an n x n grid that may lie in k ways: shifts of i, of j, and a turn
   of the grid by one k-th, which goes to the next r. */
static int eqnn__fill_grid(eqnn__draft *d, const int *a)
{
    int k = a[0], n = a[1], size = k * n * n;
    if (k != 2 && k != 4) {
        eqnn__fail(d->c, "group %s: the grid turns in 2 or 4 steps, not %d", d->name, k);
        return 0;
    }
    if (!eqnn__draft_open(d, size, 0, 3, 1, 1)) return 0;
    for (int r = 0; r < k; r++)
        for (int i = 0; i < n; i++)
            for (int j = 0; j < n; j++) {
                int at = (r * n + i) * n + j, before = (r + k - 1) % k * n * n;
                d->perm[at] = (r * n + (i + n - 1) % n) * n + j;
                d->perm[size + at] = (r * n + i) * n + (j + n - 1) % n;
                d->perm[2 * size + at] =
                    before + (k == 4 ? j * n + n - 1 - i : (n - 1 - i) * n + n - 1 - j);
            }
    return 1;
}

typedef struct eqnn__known {
    const char *name;
    int args;                                       /* whole numbers, at least 1 each */
    int (*fill)(eqnn__draft *d, const int *a);
    int sampler;
} eqnn__known;

static const eqnn__known eqnn__known_groups[] = {
    { "Trivial", 1, eqnn__fill_trivial, EQNN__SAMPLE_LISTED },
    { "SO", 1, eqnn__fill_so, EQNN__SAMPLE_SO },
    { "O", 1, eqnn__fill_o, EQNN__SAMPLE_O },
    { "C", 1, eqnn__fill_c, EQNN__SAMPLE_LISTED },
    { "D", 1, eqnn__fill_d, EQNN__SAMPLE_LISTED },
    { "Scaling", 1, eqnn__fill_scaling, EQNN__SAMPLE_WALK },
    { "Parity", 0, eqnn__fill_parity, EQNN__SAMPLE_LISTED },
    { "TimeReversal", 0, eqnn__fill_time, EQNN__SAMPLE_LISTED },
    { "SO13p", 0, eqnn__fill_connected, EQNN__SAMPLE_WALK },
    { "SO13", 0, eqnn__fill_sopq, EQNN__SAMPLE_WALK },
    { "O13", 0, eqnn__fill_opq, EQNN__SAMPLE_WALK },
    { "Lorentz", 0, eqnn__fill_lorentz, EQNN__SAMPLE_WALK },
    { "SO11p", 0, eqnn__fill_connected, EQNN__SAMPLE_WALK },
    { "O11", 0, eqnn__fill_opq, EQNN__SAMPLE_WALK },
    { "SO", 2, eqnn__fill_sopq, EQNN__SAMPLE_WALK },
    { "O", 2, eqnn__fill_opq, EQNN__SAMPLE_WALK },
    { "Sp", 1, eqnn__fill_sp, EQNN__SAMPLE_WALK },
    { "Z", 1, eqnn__fill_z, EQNN__SAMPLE_LISTED },
    { "S", 1, eqnn__fill_s, EQNN__SAMPLE_S },
    { "Alt", 1, eqnn__fill_alt, EQNN__SAMPLE_ALT },
    { "SL", 1, eqnn__fill_sl, EQNN__SAMPLE_WALK },
    { "GL", 1, eqnn__fill_gl, EQNN__SAMPLE_WALK },
    { "U", 1, eqnn__fill_u, EQNN__SAMPLE_U },
    { "SU", 1, eqnn__fill_su, EQNN__SAMPLE_SU },
    { "Cube", 0, eqnn__fill_cube, EQNN__SAMPLE_LISTED },
    { "RubiksCube", 0, eqnn__fill_rubik, EQNN__SAMPLE_WALK },
    { "RubiksCubeLegacy", 0, eqnn__fill_legacy, EQNN__SAMPLE_WALK },
    { "ZksZnxZn", 2, eqnn__fill_grid, EQNN__SAMPLE_LISTED } };

#define EQNN__KNOWN ((int)(sizeof eqnn__known_groups / sizeof eqnn__known_groups[0]))

/* --- groups of groups --- */

/* out = 1 x m x 1, units of left and right dimensions around a matrix m [n][n] of fm numbers an
   entry: m on one factor of a Kronecker product. out, of f numbers an entry, is zero before. */
static void eqnn__kron_one(const double *m, int fm, int left, int n, int right, int f, double *out)
{
    size_t dim = (size_t)left * (size_t)n * (size_t)right;
    for (int a = 0; a < left; a++)
        for (int i = 0; i < n; i++)
            for (int j = 0; j < n; j++)
                for (int b = 0; b < right; b++) {
                    size_t row = ((size_t)a * (size_t)n + (size_t)i) * (size_t)right + (size_t)b;
                    size_t col = ((size_t)a * (size_t)n + (size_t)j) * (size_t)right + (size_t)b;
                    for (int k = 0; k < fm; k++)
                        out[(row * dim + col) * (size_t)f + (size_t)k] =
                            m[((size_t)i * (size_t)n + (size_t)j) * (size_t)fm + (size_t)k];
                }
}

/* generator number k as a matrix */
static void eqnn__group_generator(const eqnn_group *g, int k, double *out)
{
    size_t n = eqnn__square(g->dim, g->field);
    if (g->perm) eqnn__dense_of(g->perm + (size_t)k * (size_t)g->dim, 1, g->dim, out);
    else memcpy(out, g->h + (size_t)k * n, n * sizeof *out);
}

/* Generators of one factor into d, from number lie and discrete on. */
static int eqnn__product_part(eqnn__draft *d, const eqnn_group *g, int left, int right, int lie,
                              int discrete)
{
    size_t n = eqnn__square(g->dim, g->field), N = eqnn__square(d->dim, d->field);
    double *h = (double *)eqnn__take(d->c, n, sizeof *h);
    if (!h) return 0;
    for (int k = 0; k < g->lie; k++)
        eqnn__kron_one(g->A + (size_t)k * n, g->field, left, g->dim, right, d->field,
                       d->A + (size_t)(lie + k) * N);
    for (int k = 0; k < g->lie; k++) d->scale[lie + k] = g->scale[k];
    for (int k = 0; d->perm && k < g->discrete; k++)
        for (int i = 0; i < d->dim; i++) {
            int b = i % right, m = i / right % g->dim, a = i / right / g->dim;
            d->perm[(size_t)(discrete + k) * (size_t)d->dim + (size_t)i] =
                (a * g->dim + g->perm[k * g->dim + m]) * right + b;
        }
    for (int k = 0; !d->perm && k < g->discrete; k++) {
        eqnn__group_generator(g, k, h);
        eqnn__kron_one(h, g->field, left, g->dim, right, d->field,
                       d->h + (size_t)(discrete + k) * N);
    }
    eqnn__drop(d->c, h, n, sizeof *h);
    return 1;
}

static void eqnn__draft_start(eqnn__draft *d, eqnn_ctx *c, const char *name)
{
    memset(d, 0, sizeof *d);
    d->c = c;
    d->name = name;
}

EQNN_API const eqnn_group *eqnn_group_product(const eqnn_group *a, const eqnn_group *b)
{
    eqnn__draft d;
    if (!a || !b || a->ctx->failed) return NULL;
    a->ctx->op = "group_product";
    if (!eqnn__group_at_home(a->ctx, b, "group_product")) return NULL;
    eqnn__draft_start(&d, a->ctx, eqnn_format(a->ctx, "%sx%s", a->name, b->name));
    double dim = (double)a->dim * b->dim;
    if (dim > 1e5) {
        eqnn__fail(a->ctx, "group_product: %s has %.0f dimensions", d.name, dim);
        return NULL;
    }
    d.sampler = EQNN__SAMPLE_PRODUCT;
    d.part[0] = a;
    d.part[1] = b;
    d.apart = a->apart || b->apart;
    int good = eqnn__draft_open(&d, a->dim * b->dim, a->lie + b->lie, a->discrete + b->discrete,
                                a->field > b->field ? a->field : b->field, a->perm && b->perm) &&
               eqnn__product_part(&d, a, 1, b->dim, 0, 0) &&
               eqnn__product_part(&d, b, a->dim, 1, a->lie, a->discrete);
    const eqnn_group *g = good ? eqnn__draft_group(&d) : NULL;
    eqnn__draft_free(&d);
    return g;
}

/* One matrix of a among dim coordinates: places says where; the others have zeros, or ones on the
   diagonal. */
static void eqnn__embed_matrix(const double *m, int n, int f, int dim, const int *places, int one,
                               double *out)
{
    if (one) eqnn__mat_identity(f, dim, out);
    else memset(out, 0, eqnn__square(dim, f) * sizeof *out);
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++)
            for (int k = 0; k < f; k++)
                out[((size_t)places[i] * (size_t)dim + (size_t)places[j]) * (size_t)f + (size_t)k] =
                    m[((size_t)i * (size_t)n + (size_t)j) * (size_t)f + (size_t)k];
}

static int eqnn__embed_fill(eqnn__draft *d, const eqnn_group *a, const int *places)
{
    size_t n = eqnn__square(a->dim, a->field), N = eqnn__square(d->dim, d->field);
    double *h = (double *)eqnn__take(d->c, n, sizeof *h);
    for (int k = 0; h && k < a->lie; k++) {
        eqnn__embed_matrix(a->A + (size_t)k * n, a->dim, a->field, d->dim, places, 0,
                           d->A + (size_t)k * N);
        d->scale[k] = a->scale[k];
    }
    for (int k = 0; h && k < a->discrete; k++) {
        eqnn__group_generator(a, k, h);
        eqnn__embed_matrix(h, a->dim, a->field, d->dim, places, 1, d->h + (size_t)k * N);
    }
    eqnn__drop(d->c, h, n, sizeof *h);
    return h != NULL;
}

static const eqnn_group *eqnn__group_embed(const eqnn_group *a, int dim, const int *places,
                                           const char *name)
{
    eqnn__draft d;
    for (int i = 0; i < a->dim; i++)
        for (int j = 0; j <= i; j++)
            if (places[i] < 0 || places[i] >= dim || (j < i && places[i] == places[j])) {
                eqnn__fail(a->ctx, "group %s: place %d is %s, and there are 0 to %d", name,
                           places[i], j < i ? "taken" : "none", dim - 1);
                return NULL;
            }
    eqnn__draft_start(&d, a->ctx, name);
    d.sampler = EQNN__SAMPLE_EMBED;
    d.part[0] = a;
    d.apart = a->apart;
    d.places = (const int *)eqnn__keep_copy(a->ctx, places, (size_t)a->dim, sizeof(int));
    int good = d.places && eqnn__draft_open(&d, dim, a->lie, a->discrete, a->field, 0) &&
               eqnn__embed_fill(&d, a, places);
    const eqnn_group *g = good ? eqnn__draft_group(&d) : NULL;
    eqnn__draft_free(&d);
    return g;
}

/* "Embed(SO(2),3,0)", with all places when they do not follow each other */
EQNN_API const eqnn_group *eqnn_group_embed(const eqnn_group *a, int dim, const int *places)
{
    if (!a || a->ctx->failed) return NULL;
    a->ctx->op = "group_embed";
    if (dim < a->dim || !places) {
        eqnn__fail(a->ctx, "group_embed: %s has %d dimensions, there are %d places", a->name,
                   a->dim, places ? dim : 0);
        return NULL;
    }
    const char *name = eqnn_format(a->ctx, "Embed(%s,%d,%d", a->name, dim, places[0]);
    int follow = 1;
    for (int i = 1; i < a->dim; i++) follow &= places[i] == places[0] + i;
    for (int i = 1; !follow && i < a->dim; i++)
        name = eqnn_format(a->ctx, "%s,%d", name, places[i]);
    return eqnn__group_embed(a, dim, places, eqnn_format(a->ctx, "%s)", name));
}

/* a + ib becomes [[a, -b], [b, a]] on the real parts, then the imaginary ones. */
static void eqnn__real_matrix(const double *m, int n, double *out)
{
    size_t N = (size_t)n, w = 2 * N;
    for (size_t i = 0; i < N; i++)
        for (size_t j = 0; j < N; j++) {
            const double *z = m + 2 * (i * N + j);
            out[i * w + j] = out[(N + i) * w + N + j] = z[0];
            out[(N + i) * w + j] = z[1];
            out[i * w + N + j] = -z[1];
        }
}

EQNN_API const eqnn_group *eqnn_group_real(const eqnn_group *a)
{
    eqnn__draft d;
    if (!a || a->ctx->failed || a->field == 1) return a;
    a->ctx->op = "group_real";
    eqnn__draft_start(&d, a->ctx, eqnn_format(a->ctx, "Real(%s)", a->name));
    d.sampler = EQNN__SAMPLE_REAL;
    d.part[0] = a;
    d.apart = a->apart;
    int good = eqnn__draft_open(&d, 2 * a->dim, a->lie, a->discrete, 1, 0);
    size_t n = eqnn__square(a->dim, 2), N = eqnn__square(d.dim, 1);
    for (int k = 0; good && k < a->lie; k++) {
        eqnn__real_matrix(a->A + (size_t)k * n, a->dim, d.A + (size_t)k * N);
        d.scale[k] = a->scale[k];
    }
    for (int k = 0; good && k < a->discrete; k++)
        eqnn__real_matrix(a->h + (size_t)k * n, a->dim, d.h + (size_t)k * N);
    const eqnn_group *g = good ? eqnn__draft_group(&d) : NULL;
    eqnn__draft_free(&d);
    return g;
}

/* --- your own, and second ones --- */

/* Number i of a list is not finite: -1 when all are. */
static int eqnn__not_finite(const double *x, size_t each, int count)
{
    for (int k = 0; k < count; k++)
        for (size_t i = 0; i < each; i++)
            if (!(fabs(x[(size_t)k * each + i]) < INFINITY)) return k;
    return -1;
}

/* Squares of a generator's numbers must be numbers too, or solvers take it for zero or infinite. */
static void eqnn__size_check(const eqnn__draft *d, const char *what, const double *x, int count)
{
    size_t n = eqnn__square(d->dim, d->field);
    for (int k = 0; k < count; k++) {
        double most = 0;
        for (size_t i = 0; i < n; i++) most = fmax(most, fabs(x[(size_t)k * n + i]));
        if (most == 0 || (most > 1e-100 && most < 1e100)) continue;
        eqnn__fail(d->c, "group %s: the largest number of %s %d is %.2g; 1e-100 to 1e100 are "
                   "possible", d->name, what, k, most);
    }
}

/* Does each list hold every place once? */
static int eqnn__perms_check(const eqnn__draft *d)
{
    int *seen = (int *)eqnn__take(d->c, (size_t)d->dim, sizeof *seen);
    for (int k = 0; seen && k < d->discrete && !d->c->failed; k++)
        for (int i = 0; i < d->dim; i++) {
            int p = d->perm[(size_t)k * (size_t)d->dim + (size_t)i];
            if (p >= 0 && p < d->dim && seen[p] == k) {
                seen[p] = k + 1;
                continue;
            }
            eqnn__fail(d->c, "group %s: permutation %d has %d at place %d, which is %s", d->name, k,
                       p, i, p >= 0 && p < d->dim ? "there twice" : "none");
            break;
        }
    eqnn__drop(d->c, seen, (size_t)d->dim, sizeof *seen);
    return !d->c->failed;
}

static int eqnn__group_check(const eqnn__draft *d)
{
    eqnn_ctx *c = d->c;
    size_t n = eqnn__square(d->dim, d->field);
    if (d->perm) return eqnn__perms_check(d);
    int bad = eqnn__not_finite(d->A, n, d->lie);
    if (bad >= 0) eqnn__fail(c, "group %s: Lie generator %d is not finite", d->name, bad);
    bad = eqnn__not_finite(d->scale, 1, d->lie);
    if (bad >= 0) eqnn__fail(c, "group %s: the scale of generator %d is not finite", d->name, bad);
    bad = eqnn__not_finite(d->h, n, d->discrete);
    if (bad >= 0) eqnn__fail(c, "group %s: generator %d is not finite", d->name, bad);
    eqnn__size_check(d, "Lie generator", d->A, d->lie);
    eqnn__size_check(d, "generator", d->h, d->discrete);
    double *X = c->failed ? NULL : (double *)eqnn__take(c, n, sizeof *X);
    for (int k = 0; X && k < d->discrete && !c->failed; k++) {
        const double *h = d->h + (size_t)k * n;
        double condition = INFINITY;
        int inverse = eqnn__inverse(c, d->dim, d->field, h, X, &condition);
        if (!inverse || !(condition < 1e13))
            eqnn__fail(c, "group %s: generator %d has no inverse (condition number %.2g)", d->name,
                       k, condition);
    }
    eqnn__drop(c, X, n, sizeof *X);
    return !c->failed;
}

/* A name that eqnn_group_make understands is given to that group first. */
static void eqnn__group_reserve(eqnn_ctx *c, const char *name)
{
    if (eqnn_group_make(c, name)) return;
    c->failed = 0; /* most names mean nothing */
    c->error[0] = 0;
}

EQNN_API const eqnn_group *eqnn_group_of(eqnn_ctx *c, const char *name, const eqnn_group_opts *opts)
{
    eqnn__draft d;
    if (!c || c->failed) return NULL;
    c->op = "group_of";
    eqnn__draft_start(&d, c, name ? name : "group");
    int perms = opts && opts->permutations;
    if (!opts || (opts->lie > 0 && !opts->lie_generators) ||
        (opts->discrete > 0 && !opts->generators && !perms)) {
        eqnn__fail(c, "group %s: the %s missing (NULL)", d.name,
                   opts ? "generators are" : "options are");
        return NULL;
    }
    if (perms && (opts->lie > 0 || opts->generators || opts->complex_numbers)) {
        eqnn__fail(c, "group %s: permutations stand alone, without matrices", d.name);
        return NULL;
    }
    int field = opts->complex_numbers ? 2 : 1;
    int good = eqnn__draft_open(&d, opts->dim, opts->lie, opts->discrete, field, perms);
    size_t n = good ? eqnn__square(d.dim, field) : 0, places = (size_t)d.discrete * (size_t)d.dim;
    if (good && d.lie) memcpy(d.A, opts->lie_generators, (size_t)d.lie * n * sizeof *d.A);
    if (good && perms) memcpy(d.perm, opts->permutations, places * sizeof *d.perm);
    else if (good && d.discrete)
        memcpy(d.h, opts->generators, (size_t)d.discrete * n * sizeof *d.h);
    if (good && opts->scale) memcpy(d.scale, opts->scale, (size_t)d.lie * sizeof *d.scale);
    d.sampler = d.lie ? EQNN__SAMPLE_WALK : EQNN__SAMPLE_LISTED;
    const eqnn_group *g = NULL;
    if (good && eqnn__group_check(&d)) {
        if (name) eqnn__group_reserve(c, name);
        g = eqnn__draft_group(&d);
    }
    eqnn__draft_free(&d);
    return g;
}

EQNN_API const eqnn_group *eqnn_group_apart(const eqnn_group *a, const char *name)
{
    eqnn__draft d;
    if (!a || a->ctx->failed) return NULL;
    a->ctx->op = "group_apart";
    if (!name || !*name) {
        eqnn__fail(a->ctx, "group_apart: %s needs another name", a->name);
        return NULL;
    }
    eqnn__group_reserve(a->ctx, name);
    eqnn__draft_start(&d, a->ctx, name);
    d.apart = 1;
    d.sampler = a->sampler;
    d.part[0] = a->part[0];
    d.part[1] = a->part[1];
    d.places = a->places;
    int good = eqnn__draft_open(&d, a->dim, a->lie, a->discrete, a->field, a->perm != NULL) &&
               eqnn__product_part(&d, a, 1, 1, 0, 0);
    const eqnn_group *g = good ? eqnn__draft_group(&d) : NULL;
    eqnn__draft_free(&d);
    return g;
}

/* --- names --- */

/* A text that is read from left to right; sentences name its column. */
typedef struct eqnn__reader {
    eqnn_ctx *c;
    const char *what, *text, *at;
    const eqnn_group *group; /* of expressions: what V belongs to              */
    int used, depth;         /* group was needed; how deep in parentheses      */
    int placed;              /* the error names its column                     */
} eqnn__reader;

/* A sentence that names no column, such as that of a power too large, is put behind one: it is
   about what was read last. */
static void eqnn__reader_blame(eqnn__reader *r)
{
    char said[sizeof r->c->error];
    if (!r->c->failed || r->placed) return;
    memcpy(said, r->c->error, sizeof said);
    r->c->failed = 0;
    eqnn__fail(r->c, "%s \"%.200s\": up to column %d: %s", r->what, r->text, (int)(r->at - r->text),
               strncmp(said, "rep: ", 5) ? said : said + 5);
}

static void *eqnn__expected(eqnn__reader *r, const char *what)
{
    const char *end = r->at;
    while (*end && (isalnum((unsigned char)*end) || end == r->at)) end++;
    r->placed = 1;
    return eqnn__fail(r->c, "%s \"%.200s\": column %d: expected %s, found %s%.*s%s", r->what,
                      r->text, (int)(r->at - r->text) + 1, what, *r->at ? "\"" : "the end",
                      (int)(end - r->at > 40 ? 40 : end - r->at) * (*r->at != 0), r->at,
                      *r->at ? "\"" : "");
}

static void eqnn__spaces(eqnn__reader *r)
{
    while (*r->at == ' ' || *r->at == '\t' || *r->at == '\n') r->at++;
}

static int eqnn__accept(eqnn__reader *r, const char *token)
{
    size_t n = strlen(token);
    eqnn__spaces(r);
    if (strncmp(r->at, token, n)) return 0;
    r->at += n;
    return 1;
}

/* A whole number of at least 0, or -1 and a sentence. */
static int eqnn__read_int(eqnn__reader *r, const char *what)
{
    int64_t x = 0;
    eqnn__spaces(r);
    const char *start = r->at;
    while (isdigit((unsigned char)*r->at) && x <= INT_MAX) x = 10 * x + (*r->at++ - '0');
    if (r->at > start && x <= INT_MAX) return (int)x;
    r->at = start;
    eqnn__expected(r, r->at[0] >= '0' && r->at[0] <= '9' ? "a smaller number" : what);
    return -1;
}

static const eqnn_group *eqnn__read_group(eqnn__reader *r);

/* "(3)" or "(4,3)": how many numbers were read, -1 on an error */
static int eqnn__read_args(eqnn__reader *r, int *a, int most)
{
    int n = 0;
    if (!eqnn__accept(r, "(")) return 0;
    do {
        if (n == most) { eqnn__expected(r, "no more numbers"); return -1; }
        a[n] = eqnn__read_int(r, "a whole number");
        if (a[n] < 0) return -1;
        n++;
    } while (eqnn__accept(r, ","));
    if (!eqnn__accept(r, ")")) { eqnn__expected(r, "\",\" or \")\""); return -1; }
    return n;
}

/* Are the n numbers that were read behind args from 1 to 30000? */
static int eqnn__args_good(eqnn__reader *r, const char *args, const int *a, int n)
{
    for (int i = 0; i < n; i++) {
        if (a[i] >= 1 && a[i] <= 30000) continue;
        r->at = strchr(args, i ? ',' : '(') + 1;
        eqnn__spaces(r);
        eqnn__expected(r, "a number from 1 to 30000");
        return 0;
    }
    return 1;
}

/* What stands behind a name that is complete. */
static int eqnn__name_ends(const char *at)
{
    return !isalnum((unsigned char)*at) || *at == 'x';
}

/* "Embed(SO(2),3,0)" behind "Embed"; one place: that and the following ones. */
static const eqnn_group *eqnn__read_embed(eqnn__reader *r, const char *start)
{
    int places[64];
    if (!eqnn__accept(r, "(")) return (const eqnn_group *)eqnn__expected(r, "\"(\"");
    const eqnn_group *a = eqnn__read_group(r);
    if (!a || !eqnn__accept(r, ","))
        return (const eqnn_group *)eqnn__expected(r, "\",\" and a number");
    const char *at = r->at;
    int n = 0, dim = eqnn__read_int(r, "a number of dimensions");
    while (dim >= 0 && n < 64 && eqnn__accept(r, ",")) {
        places[n] = eqnn__read_int(r, "a place");
        if (places[n++] < 0) return NULL;
    }
    if (dim < 0) return NULL;
    if (!eqnn__accept(r, ")")) return (const eqnn_group *)eqnn__expected(r, "\")\"");
    if (n == 0) places[n++] = 0;
    for (; n < a->dim && n < 64 && (n == 1 || places[n - 1] == places[0] + n - 1); n++)
        places[n] = places[0] + n;
    r->at = n == a->dim && dim >= a->dim ? r->at : at;
    if (r->at == at)
        return (const eqnn_group *)eqnn__expected(r, "enough dimensions and a place for each");
    const char *name = eqnn_format(r->c, "%.*s", (int)(r->at - start), start);
    return eqnn__group_embed(a, dim, places, name);
}

/* A name of the list with its numbers. */
static const eqnn_group *eqnn__read_known(eqnn__reader *r, const eqnn__known *k)
{
    const char *start = r->at;
    int a[2] = { 0, 0 }, m = 0;
    eqnn__draft d;
    r->at += strlen(k->name);
    const char *args = r->at;
    int n = eqnn__read_args(r, a, 2);
    if (n < 0) return NULL;
    for (const char *s = k->name; n == 0 && *s; s++) /* O13 is O(1,3) */
        if (isdigit((unsigned char)*s)) a[m++] = *s - '0';
    const eqnn__known *end = eqnn__known_groups + EQNN__KNOWN, *same = eqnn__known_groups;
    while (same < end && (strcmp(same->name, k->name) || same->args != n)) same++;
    if (same == end) {
        r->at = args;
        return (const eqnn_group *)eqnn__expected(
            r, k->args == 0 ? "no numbers" : k->args == 1 ? "a number in parentheses"
                                                          : "two numbers in parentheses");
    }
    if (!eqnn__args_good(r, args, a, n)) return NULL;
    eqnn__draft_start(&d, r->c, eqnn_format(r->c, "%.*s", (int)(r->at - start), start));
    const eqnn_group *g = eqnn__group_lookup(r->c, d.name);
    if (g) return g;
    d.sampler = same->sampler;
    if (same->fill(&d, a)) g = eqnn__draft_group(&d);
    eqnn__draft_free(&d);
    return g;
}

/* SO2eR3, O2eR3, DkeR3(k): on the first two of three coordinates */
static const eqnn_group *eqnn__read_plane(eqnn__reader *r, int which)
{
    static const int places[2] = { 0, 1 };
    const char *start = r->at;
    int k = 0;
    r->at += which == 0 ? 6 : 5;
    const char *args = r->at;
    if (which == 2 && eqnn__read_args(r, &k, 1) != 1)
        return (const eqnn_group *)eqnn__expected(r, "a number in parentheses");
    if (which == 2 && !eqnn__args_good(r, args, &k, 1)) return NULL;
    const char *name = eqnn_format(r->c, "%.*s", (int)(r->at - start), start);
    const char *plane = which == 0 ? "SO(2)" : which == 1 ? "O(2)" : eqnn_format(r->c, "D(%d)", k);
    const eqnn_group *a = eqnn_group_make(r->c, plane);
    return a ? eqnn__group_embed(a, 3, places, name) : NULL;
}

/* The longest name of the list, or of the caller's groups, that stands here. */
static const eqnn_group *eqnn__read_name(eqnn__reader *r)
{
    static const char *const plane[3] = { "SO2eR3", "O2eR3", "DkeR3" };
    const eqnn__known *best = NULL;
    size_t most = 0;
    for (int i = 0; i < 3; i++)
        if (!strncmp(r->at, plane[i], strlen(plane[i]))) return eqnn__read_plane(r, i);
    for (int i = 0; i < EQNN__KNOWN; i++) {
        const char *name = eqnn__known_groups[i].name;
        size_t n = strlen(name);
        if (n > most && !strncmp(r->at, name, n) && eqnn__name_ends(r->at + n)) {
            most = n;
            best = &eqnn__known_groups[i];
        }
    }
    const eqnn_group *own = NULL;
    for (eqnn__group_name *a = eqnn__groups_of(r->c)->names; a; a = a->next) {
        size_t n = strlen(a->name);
        if (n > most && !strncmp(r->at, a->name, n) && eqnn__name_ends(r->at + n)) {
            most = n;
            own = a->group;
        }
    }
    if (own) r->at += most;
    if (own) return own;
    return best ? eqnn__read_known(r, best) : (const eqnn_group *)eqnn__expected(
        r, "the name of a group (SO(3), O13, S(5), SO(3)xS(5), ...)");
}

static const eqnn_group *eqnn__read_single(eqnn__reader *r)
{
    const eqnn_group *g;
    eqnn__spaces(r);
    const char *start = r->at;
    if (r->depth > 50) return (const eqnn_group *)eqnn__expected(r, "fewer parentheses");
    r->depth++;
    if (eqnn__accept(r, "Embed")) g = eqnn__read_embed(r, start);
    else if (eqnn__accept(r, "Real(") || eqnn__accept(r, "(")) {
        int real = r->at - start > 1;
        g = eqnn__read_group(r);
        if (g && !eqnn__accept(r, ")")) g = (const eqnn_group *)eqnn__expected(r, "\")\"");
        if (real) g = eqnn_group_real(g);
    } else g = eqnn__read_name(r);
    r->depth--;
    return g;
}

static const eqnn_group *eqnn__read_group(eqnn__reader *r)
{
    const eqnn_group *g = eqnn__read_single(r);
    while (g && eqnn__accept(r, "x")) {
        const eqnn_group *b = eqnn__read_single(r);
        g = b ? eqnn_group_product(g, b) : NULL;
    }
    return g;
}

static void eqnn__reader_start(eqnn__reader *r, eqnn_ctx *c, const char *what, const char *text)
{
    memset(r, 0, sizeof *r);
    r->c = c;
    r->what = what;
    r->text = r->at = text;
}

EQNN_API const eqnn_group *eqnn_group_make(eqnn_ctx *c, const char *name)
{
    eqnn__reader r;
    if (!c || c->failed || !eqnn__groups_of(c)) return NULL;
    c->op = "group";
    eqnn__reader_start(&r, c, "group", name ? name : "");
    const eqnn_group *g = eqnn__group_lookup(c, r.text);
    if (g) return g;
    g = eqnn__read_group(&r);
    eqnn__spaces(&r);
    if (g && *r.at) g = (const eqnn_group *)eqnn__expected(&r, "the end or \"x\" and a group");
    return g ? eqnn__group_named(g, r.text) : NULL;
}

/* --- what they are --- */

EQNN_API const char *eqnn_group_name(const eqnn_group *g) { return g ? g->name : ""; }
EQNN_API int eqnn_group_dim(const eqnn_group *g) { return g ? g->dim : 0; }
EQNN_API int eqnn_group_complex(const eqnn_group *g) { return g && g->field == 2; }
EQNN_API int eqnn_group_orthogonal(const eqnn_group *g) { return g && g->orthogonal; }
EQNN_API int eqnn_group_permutation(const eqnn_group *g) { return g && g->permutation; }

EQNN_API int eqnn_group_lie(const eqnn_group *g, const double **generators)
{
    if (generators) *generators = g ? g->A : NULL;
    return g ? g->lie : 0;
}

/* Large permutation groups get their matrices when these are asked for. */
EQNN_API int eqnn_group_discrete(const eqnn_group *g, const double **generators)
{
    if (generators) *generators = NULL;
    if (!g || !generators) return g ? g->discrete : 0;
    if (!g->h && !g->ctx->failed) {
        size_t n = (size_t)g->discrete * eqnn__square(g->dim, 1);
        double *h = NULL;
        if ((double)n * 8 > 4e9)
            eqnn__fail(g->ctx, "group %s: %d matrices of %d x %d numbers are too many", g->name,
                       g->discrete, g->dim, g->dim);
        else h = (double *)eqnn__keep_alloc(g->ctx, n * sizeof *h);
        if (h) eqnn__dense_of(g->perm, g->discrete, g->dim, h);
        ((eqnn_group *)g)->h = h;
    }
    *generators = g->h;
    return g->h ? g->discrete : 0;
}

/* --- random elements --- */

/* eqnn_random under "name.part" */
static void eqnn__draw_as(eqnn_ctx *c, const char *name, const char *part, int normal, size_t n,
                          double *out)
{
    char full[256];
    snprintf(full, sizeof full, "%.200s.%s", name, part);
    eqnn_random(c, full, normal, n, out);
}

/* Rows of independent normal numbers, made orthonormal one after the other (Gram and Schmidt,
   twice), are uniform in O(n) or U(n): what multiplies them by a fixed element changes nothing
   about their distribution. Then special makes the determinant 1 by turning the first row. */
static int eqnn__haar(eqnn_ctx *c, int f, int n, int special, double *g)
{
    size_t w = (size_t)n * (size_t)f;
    double det[2], *work = (double *)eqnn__take(c, (size_t)n * w, sizeof *work);
    if (!work) return 0;
    for (int i = 0; i < n; i++) {
        double *row = g + (size_t)i * w, size = 0;
        for (int k = 0; k < 2 * i; k++) {
            const double *other = g + (size_t)(k % i) * w;
            double m[2] = { 0, 0 };                         /* <other, row> */
            for (size_t j = 0; j < w; j++) m[0] += other[j] * row[j];
            for (size_t j = 0; f == 2 && j < w; j += 2)
                m[1] += other[j] * row[j + 1] - other[j + 1] * row[j];
            eqnn__row_less(f, w, row, other, m);
        }
        for (size_t j = 0; j < w; j++) size += row[j] * row[j];
        for (size_t j = 0; j < w; j++) row[j] /= sqrt(size);
    }
    memcpy(work, g, (size_t)n * w * sizeof *g);
    if (special) {
        eqnn__mat_det(f, n, work, det);
        double size = sqrt(det[0] * det[0] + det[1] * det[1]);
        eqnn__row_times(f, w, g, det[0] / size, -det[1] / size);
    }
    eqnn__drop(c, work, (size_t)n * w, sizeof *work);
    return 1;
}

static int eqnn__sample_rotations(const eqnn_group *g, const char *name, int n, double *out)
{
    size_t all = eqnn__square(g->dim, g->field);
    int special = g->sampler == EQNN__SAMPLE_SO || g->sampler == EQNN__SAMPLE_SU, good = 1;
    eqnn__draw_as(g->ctx, name, "haar", 1, (size_t)n * all, out);
    for (int s = 0; good && s < n; s++)
        good = eqnn__haar(g->ctx, g->field, g->dim, special, out + (size_t)s * all);
    return good;
}

/* Fisher and Yates: each of the n! orders is as likely. Even ones: an odd one is followed by one
   more exchange. */
static int eqnn__sample_orders(const eqnn_group *g, const char *name, int n, double *out)
{
    size_t d = (size_t)g->dim;
    double *u = (double *)eqnn__take(g->ctx, (size_t)n * d, sizeof *u);
    int *p = (int *)eqnn__take(g->ctx, d, sizeof *p);
    if (u && p) eqnn__draw_as(g->ctx, name, "order", 0, (size_t)n * d, u);
    for (int s = 0; u && p && s < n; s++) {
        int odd = 0;
        for (int i = 0; i < g->dim; i++) p[i] = i;
        for (int i = g->dim - 1; i > 0; i--) {
            int j = (int)(u[(size_t)s * d + (size_t)i] * (i + 1)), t = p[i];
            p[i] = p[j];
            p[j] = t;
            odd ^= i != j;
        }
        if (odd && g->sampler == EQNN__SAMPLE_ALT) { int t = p[0]; p[0] = p[1]; p[1] = t; }
        eqnn__dense_of(p, 1, g->dim, out + (size_t)s * d * d);
    }
    int good = u && p;
    eqnn__drop(g->ctx, p, d, sizeof *p);
    eqnn__drop(g->ctx, u, (size_t)n * d, sizeof *u);
    return good;
}

/* --- all elements of a finite group --- */

#define EQNN__ELEMENTS 10000
#define EQNN__ELEMENT_BINS 4096

/* An element is a row of width numbers: a matrix, or where each coordinate comes from. */
typedef struct eqnn__closure {
    const eqnn_group *g;
    size_t width;
    int room, count;
    double *row;                          /* [room][width]                        */
    int *next, first[EQNN__ELEMENT_BINS]; /* lists of equal sums, numbered from 1 */
} eqnn__closure;

/* b = a h_k */
static void eqnn__closure_step(const eqnn_group *g, const double *a, int k, double *b)
{
    const int *p = g->perm ? g->perm + (size_t)k * (size_t)g->dim : NULL;
    for (int i = 0; p && i < g->dim; i++) b[i] = p[(int)a[i]];
    if (!p)
        eqnn__mat_mul(g->field, g->dim, a, g->h + (size_t)k * eqnn__square(g->dim, g->field), b);
}

/* Is the last row new? Equal elements have almost equal sums, so that only a few are compared. */
static int eqnn__closure_new(eqnn__closure *s)
{
    const double *x = s->row + (size_t)s->count * s->width;
    double sum = 0;
    for (size_t i = 0; i < s->width; i++) sum += x[i] * (1 + 0.618 * (double)(i % 97));
    if (!(fabs(sum) < 1e9)) return -1;
    int64_t bin = (int64_t)floor(sum * 256);
    for (int64_t b = bin - 1; b <= bin + 1; b++)
        for (int e = s->first[(uint64_t)b % EQNN__ELEMENT_BINS]; e; e = s->next[e - 1]) {
            const double *y = s->row + (size_t)(e - 1) * s->width;
            size_t i = 0;
            while (i < s->width && fabs(x[i] - y[i]) < 1e-6) i++;
            if (i == s->width) return 0;
        }
    s->next[s->count] = s->first[(uint64_t)bin % EQNN__ELEMENT_BINS];
    s->first[(uint64_t)bin % EQNN__ELEMENT_BINS] = s->count + 1;
    return 1;
}

/* Every element times every generator until nothing new comes; 0 when they are too many. */
static int eqnn__closure_run(eqnn__closure *s)
{
    const eqnn_group *g = s->g;
    for (int i = 0; g->perm && i < g->dim; i++) s->row[i] = i;
    if (!g->perm) eqnn__mat_identity(g->field, g->dim, s->row);
    eqnn__closure_new(s);
    s->count = 1;
    for (int e = 0; e < s->count; e++)
        for (int k = 0; k < g->discrete; k++) {
            if (s->count == s->room) return 0;
            eqnn__closure_step(g, s->row + (size_t)e * s->width, k,
                               s->row + (size_t)s->count * s->width);
            int is_new = eqnn__closure_new(s);
            if (is_new < 0) return 0;
            s->count += is_new;
        }
    return s->count < s->room;
}

/* Lists the elements once, in at most 64 MB; otherwise the group is walked through. */
static int eqnn__list_elements(eqnn_group *g)
{
    eqnn_ctx *c = g->ctx;
    size_t width = g->perm ? (size_t)g->dim : eqnn__square(g->dim, g->field);
    size_t room = ((size_t)1 << 23) / width + 1;
    if (room > EQNN__ELEMENTS + 1) room = EQNN__ELEMENTS + 1;
    eqnn__closure *s = (eqnn__closure *)eqnn__take(c, 1, sizeof *s);
    if (!s) return 0;
    s->g = g;
    s->width = width;
    s->room = (int)room;
    s->row = (double *)eqnn__take(c, room * width, sizeof *s->row);
    s->next = (int *)eqnn__take(c, room, sizeof *s->next);
    if (s->row && s->next) {
        if (eqnn__closure_run(s)) {
            g->element =
                (double *)eqnn__keep_copy(c, s->row, (size_t)s->count * width, sizeof(double));
            g->elements = s->count;
        } else g->sampler = EQNN__SAMPLE_WALK;
    }
    eqnn__drop(c, s->next, room, sizeof *s->next);
    eqnn__drop(c, s->row, room * width, sizeof *s->row);
    eqnn__drop(c, s, 1, sizeof *s);
    return !c->failed;
}

static int eqnn__sample_listed(const eqnn_group *g, const char *name, int n, double *out)
{
    size_t all = eqnn__square(g->dim, g->field);
    double *u = (double *)eqnn__take(g->ctx, (size_t)n, sizeof *u);
    if (!u) return 0;
    eqnn__draw_as(g->ctx, name, "element", 0, (size_t)n, u);
    for (int s = 0; s < n; s++) {
        size_t e = (size_t)(u[s] * g->elements);
        double *to = out + (size_t)s * all;
        if (!g->perm) memcpy(to, g->element + e * all, all * sizeof *to);
        else memset(to, 0, all * sizeof *to);
        for (int i = 0; g->perm && i < g->dim; i++)
            to[i * g->dim + (int)g->element[e * (size_t)g->dim + (size_t)i]] = 1;
    }
    eqnn__drop(g->ctx, u, (size_t)n, sizeof *u);
    return 1;
}

/* Finite groups too large for a list: words of random generators, 40 for each coordinate and at
   least 1000 of them, after which no place is more likely than another to the eye of any test. */
static int eqnn__sample_words(const eqnn_group *g, const char *name, int n, double *out)
{
    size_t d = (size_t)g->dim, steps = 1000 + 40 * d;
    double *u = (double *)eqnn__take(g->ctx, steps, sizeof *u);
    int *p = (int *)eqnn__take(g->ctx, d, sizeof *p);
    for (int s = 0; u && p && s < n; s++) {
        char part[32];
        snprintf(part, sizeof part, "word%d", s);
        eqnn__draw_as(g->ctx, name, part, 0, steps, u);
        for (int i = 0; i < g->dim; i++) p[i] = i;
        for (size_t t = 0; t < steps; t++) {
            int k = (int)(u[t] * (g->discrete + 1));      /* one choice of staying, for parity */
            const int *h = g->perm + (size_t)k * d;
            for (int i = 0; k < g->discrete && i < g->dim; i++) p[i] = h[p[i]];
        }
        eqnn__dense_of(p, 1, g->dim, out + (size_t)s * d * d);
    }
    int good = u && p;
    eqnn__drop(g->ctx, p, d, sizeof *p);
    eqnn__drop(g->ctx, u, steps, sizeof *u);
    return good;
}

/* --- as published: exp(sum z A), then three rounds of powers -5..4 of every h --- */

/* The rounds' orders of the generators, the same for all elements: [3][discrete] */
static void eqnn__published_orders(const eqnn_group *g, const char *name, int *order)
{
    double u;
    char part[32];
    for (int round = 0; round < 3; round++) {
        int *o = order + round * g->discrete;
        for (int i = 0; i < g->discrete; i++) o[i] = i;
        for (int i = g->discrete - 1; i > 0; i--) {
            snprintf(part, sizeof part, "order%d.%d", round, i);
            eqnn__draw_as(g->ctx, name, part, 0, 1, &u);
            int j = (int)(u * (i + 1)), t = o[i];
            o[i] = o[j];
            o[j] = t;
        }
    }
}

/* to = exp(sum_k z_k A_k); work has the size of one matrix */
static int eqnn__published_lie(const eqnn_group *g, const double *z, double *work, double *to)
{
    size_t all = eqnn__square(g->dim, g->field);
    memset(work, 0, all * sizeof *work);
    for (int k = 0; k < g->lie; k++)
        for (size_t i = 0; i < all; i++)
            work[i] += z[k] * g->scale[k] * g->A[(size_t)k * all + i];
    return eqnn__expm(g->ctx, g->dim, g->field, work, to);
}

/* [discrete][dim][dim]: the inverses */
static double *eqnn__group_inverses(const eqnn_group *g)
{
    size_t all = eqnn__square(g->dim, g->field), count = (size_t)g->discrete;
    double *X = (double *)eqnn__take(g->ctx, count * all, sizeof *X);
    for (size_t k = 0; X && k < count; k++)
        if (!eqnn__inverse(g->ctx, g->dim, g->field, g->h + k * all, X + k * all, NULL))
            eqnn__fail(g->ctx, "group %s: generator %d has no inverse", g->name, (int)k);
    return X;
}

/* x = x h^k: with matrices, work being one of them */
static void eqnn__times_power(const eqnn_group *g, const double *h, const double *inverse, int k,
                              double *work, double *x)
{
    size_t all = eqnn__square(g->dim, g->field);
    for (int i = 0; i < (k < 0 ? -k : k); i++) {
        eqnn__mat_mul(g->field, g->dim, x, k < 0 ? inverse : h, work);
        memcpy(x, work, all * sizeof *x);
    }
}

/* The same of permutations. */
static void eqnn__times_perm(const int *h, int n, int k, int *work, int *x)
{
    for (int i = 0; i < (k < 0 ? -k : k); i++) {
        for (int j = 0; k < 0 && j < n; j++) work[h[j]] = j;
        for (int j = 0; j < n; j++) x[j] = k < 0 ? work[x[j]] : h[x[j]];
    }
}

static int eqnn__power_drawn(const eqnn_group *g, const double *u, int s, int k, int round)
{
    return (int)(u[((size_t)s * (size_t)g->discrete + (size_t)k) * 3 + (size_t)round] * 10) - 5;
}

static int eqnn__published_perms(const eqnn_group *g, const double *u, const int *order, int n,
                                 double *out)
{
    size_t d = (size_t)g->dim;
    int *x = (int *)eqnn__take(g->ctx, 2 * d, sizeof *x);
    for (int s = 0; x && s < n; s++) {
        for (int i = 0; i < g->dim; i++) x[i] = i;
        for (int t = 0; t < 3 * g->discrete; t++)
            eqnn__times_perm(g->perm + (size_t)order[t] * d, g->dim,
                             eqnn__power_drawn(g, u, s, order[t], t / g->discrete), x + d, x);
        eqnn__dense_of(x, 1, g->dim, out + (size_t)s * d * d);
    }
    eqnn__drop(g->ctx, x, 2 * d, sizeof *x);
    return x != NULL;
}

static int eqnn__published_dense(const eqnn_group *g, const char *name, const double *u,
                                 const int *order, int n, double *out)
{
    eqnn_ctx *c = g->ctx;
    size_t all = eqnn__square(g->dim, g->field), lie = (size_t)g->lie;
    double *z = (double *)eqnn__take(c, (size_t)n * lie, sizeof *z);
    double *work = (double *)eqnn__take(c, all, sizeof *work);
    double *inverse = work ? eqnn__group_inverses(g) : NULL;
    int good = z && work && inverse && !c->failed;
    if (good) eqnn__draw_as(c, name, "lie", 1, (size_t)n * lie, z);
    for (int s = 0; good && s < n; s++) {
        double *to = out + (size_t)s * all;
        good = eqnn__published_lie(g, z + (size_t)s * lie, work, to);
        for (int t = 0; t < 3 * g->discrete; t++) {
            size_t k = (size_t)order[t];
            eqnn__times_power(g, g->h + k * all, inverse + k * all,
                              eqnn__power_drawn(g, u, s, order[t], t / g->discrete), work, to);
        }
    }
    eqnn__drop(c, inverse, (size_t)g->discrete * all, sizeof *inverse);
    eqnn__drop(c, work, all, sizeof *work);
    eqnn__drop(c, z, (size_t)n * lie, sizeof *z);
    return good;
}

static int eqnn__sample_published(const eqnn_group *g, const char *name, int n, double *out)
{
    size_t powers = 3 * (size_t)n * (size_t)g->discrete, m = 3 * (size_t)g->discrete;
    double *u = (double *)eqnn__take(g->ctx, powers, sizeof *u);
    int *order = (int *)eqnn__take(g->ctx, m, sizeof *order), good = 0;
    if (u && order) {
        eqnn__draw_as(g->ctx, name, "powers", 0, powers, u);
        eqnn__published_orders(g, name, order);
        good = g->perm ? eqnn__published_perms(g, u, order, n, out)
                       : eqnn__published_dense(g, name, u, order, n, out);
    }
    eqnn__drop(g->ctx, order, m, sizeof *order);
    eqnn__drop(g->ctx, u, powers, sizeof *u);
    return good;
}

/* --- by the parts --- */

static int eqnn__sample(const eqnn_group *g, const char *name, int n, double *out);

/* n elements of a part, as "name.part", into memory that the caller gives back. */
static int eqnn__sample_part(const eqnn_group *g, const char *name, const char *part, int n,
                             double **out)
{
    char full[256];
    snprintf(full, sizeof full, "%.200s.%s", name, part);
    *out = (double *)eqnn__take(g->ctx, (size_t)n * eqnn__square(g->dim, g->field), sizeof **out);
    return *out && eqnn__sample(g, full, n, *out);
}

/* entry of the product: x's times y's */
static void eqnn__kron_entry(const double *x, int fx, const double *y, int fy, int f, double *to)
{
    double a = x[0], b = fx == 2 ? x[1] : 0, p = y[0], q = fy == 2 ? y[1] : 0;
    to[0] = a * p - b * q;
    if (f == 2) to[1] = a * q + b * p;
}

/* K = X kron Y: X's index slowest */
static void eqnn__kron(const double *X, int m, int fx, const double *Y, int n, int fy, int f,
                       double *K)
{
    size_t M = (size_t)m, N = (size_t)n;
    for (size_t i = 0; i < M; i++)
        for (size_t k = 0; k < N; k++)
            for (size_t j = 0; j < M; j++)
                for (size_t l = 0; l < N; l++)
                    eqnn__kron_entry(X + (i * M + j) * (size_t)fx, fx, Y + (k * N + l) * (size_t)fy,
                                     fy, f, K + ((i * N + k) * M * N + j * N + l) * (size_t)f);
}

static int eqnn__sample_parts(const eqnn_group *g, const char *name, int n, double *out)
{
    const eqnn_group *a = g->part[0], *b = g->part[1];
    size_t all = eqnn__square(g->dim, g->field), na = eqnn__square(a->dim, a->field);
    size_t nb = b ? eqnn__square(b->dim, b->field) : 0;
    double *x = NULL, *y = NULL;
    int good = eqnn__sample_part(a, name, "a", n, &x) &&
               (!b || eqnn__sample_part(b, name, "b", n, &y));
    for (size_t s = 0; good && s < (size_t)n; s++) {
        if (b)
            eqnn__kron(x + s * na, a->dim, a->field, y + s * nb, b->dim, b->field, g->field,
                       out + s * all);
        else if (g->places)
            eqnn__embed_matrix(x + s * na, a->dim, a->field, g->dim, g->places, 1, out + s * all);
        else eqnn__real_matrix(x + s * na, a->dim, out + s * all);
    }
    eqnn__drop(g->ctx, y, (size_t)n * nb, sizeof *y);
    eqnn__drop(g->ctx, x, (size_t)n * na, sizeof *x);
    return good;
}

static int eqnn__sample(const eqnn_group *g, const char *name, int n, double *out)
{
    if (g->sampler == EQNN__SAMPLE_LISTED && !g->element && !eqnn__list_elements((eqnn_group *)g))
        return 0;
    switch (g->sampler) {
    case EQNN__SAMPLE_LISTED: return eqnn__sample_listed(g, name, n, out);
    case EQNN__SAMPLE_SO: case EQNN__SAMPLE_O: case EQNN__SAMPLE_U: case EQNN__SAMPLE_SU:
        return eqnn__sample_rotations(g, name, n, out);
    case EQNN__SAMPLE_S: case EQNN__SAMPLE_ALT: return eqnn__sample_orders(g, name, n, out);
    case EQNN__SAMPLE_PRODUCT: case EQNN__SAMPLE_EMBED: case EQNN__SAMPLE_REAL:
        return eqnn__sample_parts(g, name, n, out);
    default: break;
    }
    return g->perm ? eqnn__sample_words(g, name, n, out) : eqnn__sample_published(g, name, n, out);
}

static int eqnn__sample_ready(const eqnn_group *g, const char *op, int n, const double *out)
{
    if (!g || g->ctx->failed) return 0;
    g->ctx->op = op;
    if (n < 0 || (n > 0 && !out))
        eqnn__fail(g->ctx, "%s: %d elements of %s %s", op, n, g->name,
                   n < 0 ? "make no sense" : "have no place to go (NULL)");
    return !g->ctx->failed;
}

EQNN_API int eqnn_group_sample(const eqnn_group *g, const char *name, int n, double *out)
{
    return eqnn__sample_ready(g, "group_sample", n, out) &&
           (n == 0 || eqnn__sample(g, name ? name : "", n, out));
}

EQNN_API int eqnn_group_sample_published(const eqnn_group *g, const char *name, int n, double *out)
{
    return eqnn__sample_ready(g, "group_sample_published", n, out) &&
           (n == 0 || eqnn__sample_published(g, name ? name : "", n, out));
}

/* ------------------------------------------------------------------------------------------------
   3 >>reps   An expression is multiplied out when it is made: a representation is a list of
              monomials, products of atoms in a fixed order, and for each of them the places of its
              components among the columns.
   ---------------------------------------------------------------------------------------------- */

/* What products are made of: V, V.T, or a user's representation, of one group. */
typedef struct eqnn__atom {
    const eqnn_group *group;
    const char *name;          /* "V", "V.T", "psi2"                                           */
    int dim, dual;
    const double *A, *h;       /* [lie][dim][dim][field], [discrete][...]: images of the generators;
                                  h is NULL where the group's is                               */
    int orthogonal, permutation;
    const int *perm;           /* [discrete][dim] when they are permutations                   */
    eqnn_rep_function rho, drho; /* of a user's representation, else NULL                      */
    const void *user;
    const struct eqnn__atom *twin; /* the dual, once it was asked for                          */
    uint64_t key;              /* order and identity: (group key, rank of V and V.T first, name) */
    struct eqnn__atom *next;
} eqnn__atom;

/* A product of atoms, sorted: by group, then by atom. No factors: a scalar. */
typedef struct eqnn__monomial {
    eqnn_ctx *ctx;
    int factors;
    const eqnn__atom *const *factor;
    int dim;                   /* product of the factors' dims                                 */
    int field;                 /* 2 when a factor's group is complex                           */
    int permutation;
    const char *name;          /* "V*V.T"                                                      */
    uint64_t key;              /* the same in every process                                    */
    const eqnn_type *type;     /* of labels: kind EQNN_TYPE_REP, user is this monomial         */
    struct eqnn__solution *solution; /* made by section 4 when first asked for                 */
    struct eqnn__monomial *next;
} eqnn__monomial;

/* copies of a monomial, in the order of their places */
typedef struct eqnn__summand {
    const eqnn__monomial *type;
    const int *place;          /* [dim]: column of component k (canonical order) of this copy   */
} eqnn__summand;

struct eqnn_rep {
    eqnn_ctx *ctx;
    const char *name;
    int size, terms, field;
    const eqnn__summand *term; /* sorted by type (scalars first, then by the number of factors,
                                  by dim, by the factors); copies of one type by first place      */
    const eqnn_label *label;   /* NULL of complex ones                                            */
    int permutation;
    const eqnn_group *open;    /* whose V the name means, NULL: it says so itself                 */
    eqnn_ints *from, *to;      /* columns to take for the label's order, and back                 */
    int same;                  /* both orders are equal                                           */
    uint64_t hash;
    struct eqnn_rep *next;
};

/* --- atoms --- */

/* Order of atoms: by group (dim, then key, both the same in every process, then the names of groups
   set apart), V, V.T, then others by name. */
static int eqnn__atom_compare(const eqnn__atom *a, const eqnn__atom *b)
{
    if (a == b) return 0;
    if (a->group != b->group) {
        if (a->group->dim != b->group->dim) return a->group->dim < b->group->dim ? -1 : 1;
        if (a->group->key != b->group->key) return a->group->key < b->group->key ? -1 : 1;
        return strcmp(a->group->name, b->group->name);
    }
    if (!a->rho != !b->rho) return a->rho ? 1 : -1;
    if (!a->rho) return a->dual - b->dual;
    int by_name = strcmp(a->name, b->name);
    return by_name ? by_name : a->key < b->key ? -1 : 1;
}

static uint64_t eqnn__atom_key(const eqnn__atom *a)
{
    size_t n = eqnn__square(a->dim, a->group->field);
    uint64_t h = eqnn__hash_int(EQNN__HASH, (int64_t)a->group->key);
    h = eqnn__hash_int(h, a->dual);
    if (!a->rho) return h;
    h = eqnn__hash_int(eqnn__hash(h, a->name, strlen(a->name)), a->dim);
    for (int k = 0; k < a->group->lie; k++) h = eqnn__hash_numbers(h, a->A + (size_t)k * n, n);
    for (int k = 0; k < a->group->discrete; k++)
        h = eqnn__hash_numbers(h, a->h + (size_t)k * n, n);
    return h;
}

/* out = (m^-1)^T; 0 when there is none */
static int eqnn__mat_dual(eqnn_ctx *c, int f, int n, const double *m, double *out)
{
    size_t all = eqnn__square(n, f);
    double *X = (double *)eqnn__take(c, all, sizeof *X);
    int good = X && eqnn__inverse(c, n, f, m, X, NULL);
    if (good) eqnn__mat_transpose(f, n, X, out);
    eqnn__drop(c, X, all, sizeof *X);
    return good;
}

static eqnn__atom *eqnn__atom_add(eqnn__atom *a)
{
    eqnn__groups *all = eqnn__groups_of(a->group->ctx);
    a->key = eqnn__atom_key(a);
    a->next = all->atom;
    return all->atom = a;
}

static const eqnn__atom *eqnn__atom_vector(const eqnn_group *g)
{
    eqnn__groups *all = eqnn__groups_of(g->ctx);
    for (eqnn__atom *a = all->atom; a; a = a->next)
        if (a->group == g && !a->rho && !a->dual) return a;
    eqnn__atom *a = (eqnn__atom *)eqnn__keep_alloc(g->ctx, sizeof *a);
    if (!a) return NULL;
    a->group = g;
    a->name = "V";
    a->dim = g->dim;
    a->A = g->A;
    a->h = g->h;
    a->orthogonal = g->orthogonal;
    a->permutation = g->permutation;
    a->perm = g->perm;
    return eqnn__atom_add(a);
}

/* Images of the generators: -A^T and (h^-1)^T. */
static int eqnn__dual_fill(eqnn__atom *b, const eqnn__atom *a)
{
    eqnn_ctx *c = a->group->ctx;
    int f = a->group->field, lie = a->group->lie, discrete = a->group->discrete;
    size_t n = eqnn__square(a->dim, f);
    double *A = (double *)eqnn__keep_alloc(c, (size_t)lie * n * sizeof *A);
    double *h = (double *)eqnn__keep_alloc(c, (size_t)discrete * n * sizeof *h);
    if (!A || !h) return 0;
    for (int k = 0; k < lie; k++)
        eqnn__mat_transpose(f, a->dim, a->A + (size_t)k * n, A + (size_t)k * n);
    for (size_t i = 0; i < (size_t)lie * n; i++) A[i] = 0.0 - A[i];
    for (int k = 0; k < discrete; k++)
        if (!eqnn__mat_dual(c, f, a->dim, a->h + (size_t)k * n, h + (size_t)k * n)) {
            eqnn__fail(c, "rep %s of %s: the image of generator %d has no inverse", a->name,
                       a->group->name, k);
            return 0;
        }
    b->A = A;
    b->h = h;
    return 1;
}

/* An atom whose matrices are orthogonal is its own dual. */
static const eqnn__atom *eqnn__atom_dual(const eqnn__atom *a)
{
    if (a->orthogonal) return a;
    if (a->twin) return a->twin;
    eqnn_ctx *c = a->group->ctx;
    eqnn__atom *b = (eqnn__atom *)eqnn__keep_alloc(c, sizeof *b);
    if (!b) return NULL;
    *b = *a;
    b->dual = 1;
    b->name = eqnn__keep_string(c, eqnn_format(c, "%s.T", a->name));
    if (!b->name || !eqnn__dual_fill(b, a)) return NULL;
    b->twin = a;
    ((eqnn__atom *)a)->twin = b;
    return eqnn__atom_add(b);
}

/* --- monomials --- */

#define EQNN__FACTORS 64

/* Order of types: scalars, then by the number of factors, by size, by the factors. */
static int eqnn__monomial_compare(const eqnn__monomial *a, const eqnn__monomial *b)
{
    if (a == b) return 0;
    if (a->factors != b->factors) return a->factors - b->factors;
    if (a->dim != b->dim) return a->dim < b->dim ? -1 : 1;
    for (int i = 0; i < a->factors; i++) {
        int order = eqnn__atom_compare(a->factor[i], b->factor[i]);
        if (order) return order;
    }
    return 0;
}

/* "V(SO(3))**2*V(S(4))" */
static const char *eqnn__monomial_name(eqnn_ctx *c, const eqnn__atom *const *factor, int n)
{
    const char *name = "";
    for (int i = 0, k; i < n; i += k) {
        for (k = 1; i + k < n && factor[i + k] == factor[i];) k++;
        const char *atom = factor[i]->name, *group = factor[i]->group->name;
        int twin = factor[i]->dual;
        name = eqnn_format(c, "%s%s%.*s(%s)%s", name, i ? "*" : "",
                           (int)strlen(atom) - 2 * twin, atom, group, twin ? ".T" : "");
        if (k > 1) name = eqnn_format(c, "%s**%d", name, k);
    }
    return eqnn__keep_string(c, n ? name : "Scalar");
}

/* Scalars are 0e as everywhere else. */
static const eqnn_type *eqnn__monomial_type(const eqnn__monomial *m)
{
    if (m->factors == 0) return eqnn__type(m->ctx, EQNN_TYPE_IRREP, 0, 1, 1, "0e", NULL);
    return eqnn__type(m->ctx, EQNN_TYPE_REP, m->factors, m->permutation, m->dim, m->name, m);
}

/* How many groups before that of factor i have its generators, set apart from it. */
static int eqnn__groups_like(const eqnn__atom *const *factor, int i)
{
    int n = 0;
    for (int j = 0; j < i; j++)
        n += factor[j]->group->key == factor[i]->group->key &&
             factor[j]->group != factor[j + 1]->group;
    return n;
}

/* The product of atoms in their order; it was checked that the sizes multiply to an int. */
static const eqnn__monomial *eqnn__monomial_of(eqnn_ctx *c, const eqnn__atom *const *factor, int n)
{
    eqnn__groups *all = eqnn__groups_of(c);
    for (eqnn__monomial *m = all->monomial; m; m = m->next)
        if (m->factors == n && (!n || !memcmp(m->factor, factor, (size_t)n * sizeof *factor)))
            return m;
    eqnn__monomial *m = (eqnn__monomial *)eqnn__keep_alloc(c, sizeof *m);
    if (!m) return NULL;
    m->ctx = c;
    m->factors = n;
    m->factor = (const eqnn__atom *const *)eqnn__keep_copy(c, factor, (size_t)n, sizeof *factor);
    m->dim = m->field = m->permutation = 1;
    m->key = EQNN__HASH;
    for (int i = 0; i < n; i++) {
        m->dim *= factor[i]->dim;
        m->permutation &= factor[i]->permutation;
        if (factor[i]->group->field == 2) m->field = 2;
        m->key = eqnn__hash_int(m->key, (int64_t)factor[i]->key);
        int like = eqnn__groups_like(factor, i);
        if (like) m->key = eqnn__hash_int(m->key, like);
    }
    m->name = eqnn__monomial_name(c, factor, n);
    if (!m->factor || !m->name) return NULL;
    m->type = eqnn__monomial_type(m);
    if (!m->type) return NULL;
    m->next = all->monomial;
    return all->monomial = m;
}

/* The monomial of factors in any order, and for each of its components the number of that
   component in the Kronecker product as written (the first factor's index slowest). Equal factors
   keep their order. */
static const eqnn__monomial *eqnn__monomial_sorted(eqnn_ctx *c, const eqnn__atom *const *written,
                                                   int n, int *from)
{
    const eqnn__atom *factor[EQNN__FACTORS + 1];
    int stride[EQNN__FACTORS + 1], at[EQNN__FACTORS + 1], step = 1;
    for (int i = n - 1; i >= 0; i--) {
        at[i] = step;
        step *= written[i]->dim;
    }
    for (int i = 0; i < n; i++) {                                       /* insertion, stable */
        int k = i;
        for (; k > 0 && eqnn__atom_compare(factor[k - 1], written[i]) > 0; k--) {
            factor[k] = factor[k - 1];
            stride[k] = stride[k - 1];
        }
        factor[k] = written[i];
        stride[k] = at[i];
    }
    const eqnn__monomial *m = eqnn__monomial_of(c, factor, n);
    memset(at, 0, sizeof at);
    for (int k = 0, index = 0; m && k < m->dim; k++) {                  /* count like an odometer */
        from[k] = index;
        for (int i = n - 1; i >= 0; i--) {
            index += stride[i];
            if (++at[i] < factor[i]->dim) break;
            index -= at[i] * stride[i];
            at[i] = 0;
        }
    }
    return m;
}

/* --- expressions in the making --- */

/* Terms in any order, their places one after the other: as many as size. A whole number alone is
   as many scalars, and multiplies. All is in the step's memory, so that nothing is to be freed when
   an expression turns out wrong, or in any order when it is right. */
typedef struct eqnn__expr {
    eqnn_ctx *c;
    int number;               /* -1: not a mere number */
    int size, terms;
    const eqnn__monomial **type;
    int *place;
} eqnn__expr;

#define EQNN__COLUMNS 1e8
static int eqnn__expr_open(eqnn_ctx *c, eqnn__expr *e, double size, double terms)
{
    memset(e, 0, sizeof *e);
    e->number = -1;
    if (size > EQNN__COLUMNS || terms > EQNN__COLUMNS) {
        eqnn__fail(c, "rep: %.6g components in %.6g terms; %.0f are possible", size, terms,
                   EQNN__COLUMNS);
        return 0;
    }
    e->c = c;
    e->size = (int)size;
    e->terms = (int)terms;
    e->type = (const eqnn__monomial **)eqnn__temp(c, (size_t)terms, sizeof *e->type);
    e->place = (int *)eqnn__temp(c, (size_t)size, sizeof *e->place);
    return e->type && e->place;
}

static int eqnn__expr_number(eqnn_ctx *c, eqnn__expr *e, int n)
{
    const eqnn__monomial *scalar = eqnn__monomial_of(c, NULL, 0);
    if (!scalar || !eqnn__expr_open(c, e, n, n)) return 0;
    e->number = n;
    for (int i = 0; i < n; i++) {
        e->type[i] = scalar;
        e->place[i] = i;
    }
    return 1;
}

static int eqnn__expr_atom(eqnn__expr *e, const eqnn__atom *a)
{
    memset(e, 0, sizeof *e);
    if (!a || !eqnn__expr_open(a->group->ctx, e, a->dim, 1)) return 0;
    e->type[0] = eqnn__monomial_of(e->c, &a, 1);
    for (int i = 0; i < a->dim; i++) e->place[i] = i;
    return e->type[0] != NULL;
}

/* Copies a's terms to term number t on, its columns starting at column at. */
static void eqnn__expr_paste(eqnn__expr *e, const eqnn__expr *a, int t, int at)
{
    for (int i = 0; i < a->terms; i++) e->type[t + i] = a->type[i];
    for (int i = 0; i < a->size; i++) e->place[at + i] = a->place[i] + at;
}

/* One behind the other. */
static int eqnn__expr_add(const eqnn__expr *a, const eqnn__expr *b, eqnn__expr *e)
{
    if (!eqnn__expr_open(a->c, e, (double)a->size + b->size, (double)a->terms + b->terms)) return 0;
    eqnn__expr_paste(e, a, 0, 0);
    eqnn__expr_paste(e, b, a->terms, a->size);
    if (a->number >= 0 && b->number >= 0) e->number = e->size;
    return 1;
}

static int eqnn__expr_copies(int n, const eqnn__expr *a, eqnn__expr *e)
{
    if (!eqnn__expr_open(a->c, e, (double)n * a->size, (double)n * a->terms)) return 0;
    for (int i = 0; i < n; i++) eqnn__expr_paste(e, a, i * a->terms, i * a->size);
    if (a->number >= 0) e->number = e->size;
    return 1;
}

/* Term i of a times term k of b, to the places at. */
static const eqnn__monomial *eqnn__term_product(const eqnn__expr *a, const eqnn__monomial *s,
                                                const int *pa, const eqnn__expr *b,
                                                const eqnn__monomial *t, const int *pb, int *at)
{
    const eqnn__atom *factor[EQNN__FACTORS + 1];
    int n = s->factors + t->factors;
    if (n > EQNN__FACTORS) {
        eqnn__fail(a->c, "rep: a product of %d factors; there may be %d", n, EQNN__FACTORS);
        return NULL;
    }
    for (int i = 0; i < s->factors; i++) factor[i] = s->factor[i];
    for (int i = 0; i < t->factors; i++) factor[s->factors + i] = t->factor[i];
    const eqnn__monomial *m = eqnn__monomial_sorted(a->c, factor, n, at);
    for (int k = 0; m && k < m->dim; k++)
        at[k] = pa[at[k] / t->dim] * b->size + pb[at[k] % t->dim];
    return m;
}

/* Distributed: column of (i, j) is i * size of b + j, as in the Kronecker product. */
static int eqnn__expr_multiply(const eqnn__expr *a, const eqnn__expr *b, eqnn__expr *e)
{
    if (a->number >= 0) return eqnn__expr_copies(a->number, b, e);
    if (b->number >= 0) return eqnn__expr_copies(b->number, a, e);
    if (!eqnn__expr_open(a->c, e, (double)a->size * b->size, (double)a->terms * b->terms)) return 0;
    int *at = e->place, t = 0;
    for (int i = 0, pa = 0; i < a->terms; pa += a->type[i++]->dim)
        for (int k = 0, pb = 0; k < b->terms; pb += b->type[k++]->dim, t++) {
            e->type[t] = eqnn__term_product(a, a->type[i], a->place + pa, b, b->type[k],
                                            b->place + pb, at);
            if (!e->type[t]) return 0;
            at += e->type[t]->dim;
        }
    return 1;
}

/* Each factor by its dual, at the same places. */
static int eqnn__expr_dual(const eqnn__expr *a, eqnn__expr *e)
{
    const eqnn__atom *factor[EQNN__FACTORS + 1];
    if (!eqnn__expr_open(a->c, e, a->size, a->terms)) return 0;
    e->number = a->number;
    for (int i = 0, at = 0; i < a->terms; at += a->type[i++]->dim) {
        const eqnn__monomial *m = a->type[i];
        for (int k = 0; k < m->factors; k++) {
            factor[k] = eqnn__atom_dual(m->factor[k]);
            if (!factor[k]) return 0;
        }
        e->type[i] = eqnn__monomial_sorted(a->c, factor, m->factors, e->place + at);
        if (!e->type[i]) return 0;
        for (int k = 0; k < m->dim; k++) e->place[at + k] = a->place[at + e->place[at + k]];
    }
    return 1;
}

/* a becomes a b, or another operation of the two. */
enum { EQNN__EXPR_ADD, EQNN__EXPR_MULTIPLY, EQNN__EXPR_MAP, EQNN__EXPR_MAP_BACK };
static int eqnn__expr_combine(int operation, eqnn__expr *a, eqnn__expr *b)
{
    eqnn__expr e, dual;
    int good = 0;
    memset(&e, 0, sizeof e);
    memset(&dual, 0, sizeof dual);
    switch (operation) {
    case EQNN__EXPR_ADD: good = eqnn__expr_add(a, b, &e); break;
    case EQNN__EXPR_MULTIPLY: good = eqnn__expr_multiply(a, b, &e); break;
    case EQNN__EXPR_MAP: /* a >> b = b * a.T */
        good = eqnn__expr_dual(a, &dual);
        dual.number = -1; /* columns of a matrix, not copies: the same places either way */
        b->number = -1;
        good = good && eqnn__expr_multiply(b, &dual, &e);
        break;
    default: /* a << b = a * b.T */
        good = eqnn__expr_dual(b, &dual);
        dual.number = -1;
        a->number = -1;
        good = good && eqnn__expr_multiply(a, &dual, &e);
    }
    *a = e;
    return good;
}

/* a becomes its n-th power. */
static int eqnn__expr_power(eqnn__expr *a, int n)
{
    eqnn__expr e, next;
    eqnn_ctx *c = a->c;
    int number = a->number;
    int good = eqnn__expr_number(c, &e, 1);
    if (good && pow(a->size, n) > EQNN__COLUMNS) {
        eqnn__fail(c, "rep: %d components to the power %d; %.0f are possible", a->size, n,
                   EQNN__COLUMNS);
        good = 0;
    }
    if (number < 0) e.number = -1;
    for (int i = 0; good && i < n; i++) {
        good = eqnn__expr_multiply(&e, a, &next);
        e = next;
        if (number == 0 || number == 1 || e.size == 0) break;
        if (number < 0 && a->size == 1 && a->terms == 1 && a->type[0]->factors == 0) break;
    }
    *a = e;
    return good;
}

/* --- finished ones --- */

typedef struct eqnn__sorting { const eqnn__monomial *type; const int *place; } eqnn__sorting;

static int eqnn__sorting_compare(const void *a, const void *b)
{
    const eqnn__sorting *s = (const eqnn__sorting *)a, *t = (const eqnn__sorting *)b;
    int order = eqnn__monomial_compare(s->type, t->type);
    return order ? order : s->place[0] < t->place[0] ? -1 : s->place[0] > t->place[0];
}

static int eqnn__terms_same(const eqnn_rep *a, const eqnn_rep *b)
{
    if (a->size != b->size || a->terms != b->terms) return 0;
    for (int i = 0; i < a->terms; i++)
        if (a->term[i].type != b->term[i].type ||
            memcmp(a->term[i].place, b->term[i].place, (size_t)a->term[i].type->dim * sizeof(int)))
            return 0;
    return 1;
}

/* The terms, sorted, in memory of the heap or of the context. */
static int eqnn__rep_sort(const eqnn__expr *e, eqnn_rep *r, eqnn__summand *term, int *place)
{
    eqnn_ctx *c = e->c;
    eqnn__sorting *s = (eqnn__sorting *)eqnn__take(c, (size_t)e->terms, sizeof *s);
    if (!s) return 0;
    for (int i = 0, at = 0; i < e->terms; at += e->type[i++]->dim) {
        s[i].type = e->type[i];
        s[i].place = e->place + at;
    }
    qsort(s, (size_t)e->terms, sizeof *s, eqnn__sorting_compare);
    r->field = 1;
    r->permutation = 1;
    for (int i = 0; i < e->terms; i++) {
        term[i].type = s[i].type;
        term[i].place = place;
        memcpy(place, s[i].place, (size_t)s[i].type->dim * sizeof *place);
        place += s[i].type->dim;
        if (s[i].type->field == 2) r->field = 2;
        r->permutation &= s[i].type->permutation;
    }
    r->ctx = c;
    r->term = term;
    r->terms = e->terms;
    r->size = e->size;
    eqnn__drop(c, s, (size_t)e->terms, sizeof *s);
    return 1;
}

/* One block a type; complex ones have none, tensors being real. */
static int eqnn__rep_make_label(eqnn_rep *r)
{
    size_t n = (size_t)r->terms + 1;
    if (r->field == 2) return 1;
    eqnn_block *b = (eqnn_block *)eqnn__take(r->ctx, n, sizeof *b);
    int blocks = 0;
    for (int i = 0; b && i < r->terms; i++) {
        if (i == 0 || r->term[i].type != r->term[i - 1].type)
            b[blocks++].type = r->term[i].type->type;
        b[blocks - 1].copies++;
    }
    if (b) r->label = eqnn__label(r->ctx, b, blocks);
    eqnn__drop(r->ctx, b, n, sizeof *b);
    return r->label != NULL;
}

static uint64_t eqnn__rep_hash(const eqnn_rep *r, const char *name)
{
    uint64_t h = eqnn__hash(EQNN__HASH, name, strlen(name));
    h = eqnn__hash_int(h, r->size);
    for (int i = 0; i < r->terms; i++) h = eqnn__hash_int(h, (int64_t)r->term[i].type->key);
    return h;
}

/* The one representation of that name and content in the context. */
static const eqnn_rep *eqnn__rep_keep(const eqnn_rep *r, const char *name, const eqnn_group *open)
{
    eqnn_ctx *c = r->ctx;
    eqnn__groups *all = eqnn__groups_of(c);
    uint64_t hash = eqnn__rep_hash(r, name);
    for (eqnn_rep *k = all->rep; k; k = k->next)
        if (k->hash == hash && !strcmp(k->name, name) && eqnn__terms_same(k, r)) return k;
    eqnn_rep *k = (eqnn_rep *)eqnn__keep_copy(c, r, 1, sizeof *r);
    size_t terms = (size_t)r->terms;
    eqnn__summand *term = (eqnn__summand *)eqnn__keep_copy(c, r->term, terms, sizeof *term);
    const int *first = r->terms ? r->term[0].place : NULL;
    int *place = (int *)eqnn__keep_copy(c, first, (size_t)r->size, sizeof *place);
    if (!k || !term || !place) return NULL;
    for (int i = 0; i < r->terms; i++) term[i].place = place + (term[i].place - first);
    k->term = term;
    k->hash = hash;
    k->open = open;
    k->name = eqnn__keep_string(c, name);
    if (!k->name || !eqnn__rep_make_label(k)) return NULL;
    k->next = all->rep;
    return all->rep = k;
}

/* open: the group that V in the name belongs to, NULL when the name says it all. */
static const eqnn_rep *eqnn__rep_of(eqnn__expr *e, const char *name, const eqnn_group *open)
{
    eqnn_rep r;
    eqnn_ctx *c = e->c;
    const eqnn_rep *result = NULL;
    memset(&r, 0, sizeof r);
    eqnn__summand *term = (eqnn__summand *)eqnn__take(c, (size_t)e->terms, sizeof *term);
    int *place = (int *)eqnn__take(c, (size_t)e->size, sizeof *place);
    if (term && place && eqnn__rep_sort(e, &r, term, place))
        result = eqnn__rep_keep(&r, name, open);
    eqnn__drop(c, place, (size_t)e->size, sizeof *place);
    eqnn__drop(c, term, (size_t)e->terms, sizeof *term);
    return result;
}

/* --- reading expressions --- */

static int eqnn__read_map(eqnn__reader *r, eqnn__expr *e);

/* Where the parenthesis that was just opened closes. */
static const char *eqnn__closing(const char *at)
{
    for (int depth = 1; *at; at++) {
        if (*at == '(') depth++;
        if (*at == ')' && --depth == 0) return at;
    }
    return at;
}

/* "(SO(3))" behind an atom or an expression in parentheses; else the group of all. */
static const eqnn_group *eqnn__read_owner(eqnn__reader *r)
{
    eqnn__spaces(r);
    if (*r->at != '(') {
        r->used = 1;
        if (r->group) return r->group;
        return (const eqnn_group *)eqnn__expected(r, "a group in parentheses, none being given");
    }
    r->at++;
    const eqnn_group *g = eqnn__read_group(r);
    if (g && !eqnn__accept(r, ")")) g = (const eqnn_group *)eqnn__expected(r, "\")\"");
    return g;
}

/* (expression), or (expression)(G): then V in it belongs to G */
static int eqnn__read_parentheses(eqnn__reader *r, eqnn__expr *e)
{
    const eqnn_group *outer = r->group;
    const char *end = eqnn__closing(r->at), *inside = r->at;
    int used = r->used;
    for (r->at = *end ? end + 1 : end; *r->at == ' ';) r->at++;
    const char *owner = *r->at == '(' ? r->at : NULL;
    if (owner && !(r->group = eqnn__read_owner(r))) return 0;
    const char *behind = r->at;
    r->at = inside;
    r->depth++;
    int good = r->depth <= 50 ? eqnn__read_map(r, e) : 0;
    if (r->depth > 50) eqnn__expected(r, "fewer parentheses");
    r->depth--;
    r->group = outer;
    if (!good) return 0;
    if (!eqnn__accept(r, ")")) { eqnn__expected(r, "an operator or \")\""); return 0; }
    if (owner) { r->at = behind; r->used = used; }
    return 1;
}

/* T(p,q) = V**p * V.T**q */
static int eqnn__expr_tensor(eqnn__expr *e, const eqnn_group *g, int p, int q)
{
    eqnn__expr v, w, pair;
    int good = eqnn__expr_atom(&v, eqnn__atom_vector(g));
    memset(e, 0, sizeof *e);
    memset(&w, 0, sizeof w);
    good = good && eqnn__expr_dual(&v, &w);
    good = good && eqnn__expr_power(&v, p) && eqnn__expr_power(&w, q);
    if (good) {
        good = eqnn__expr_multiply(&v, &w, &pair);
        *e = pair;
    }
    return good;
}

static int eqnn__read_tensor(eqnn__reader *r, eqnn__expr *e)
{
    int a[2] = { 0, 0 };
    if (isdigit((unsigned char)*r->at)) a[0] = eqnn__read_int(r, "");
    else if (*r->at != '(') { eqnn__expected(r, "\"(\" and one or two numbers"); return 0; }
    else if (eqnn__read_args(r, a, 2) < 0) return 0;
    if (a[0] < 0) return 0;
    if (a[0] > EQNN__FACTORS || a[1] > EQNN__FACTORS || a[0] + a[1] > EQNN__FACTORS) {
        eqnn__expected(r, "at most 64 factors");
        return 0;
    }
    if (a[0] + a[1] == 0) {
        eqnn__spaces(r);
        if (*r->at == '(' && !eqnn__read_owner(r)) return 0;
        if (!eqnn__expr_number(r->c, e, 1)) return 0;
        e->number = -1;
        return 1;
    }
    const eqnn_group *g = eqnn__read_owner(r);
    return g && eqnn__expr_tensor(e, g, a[0], a[1]);
}

/* How much of the text at is that name: 0 when it is another. */
static size_t eqnn__is_name(const char *at, const char *name)
{
    size_t n = strlen(name);
    return strncmp(at, name, n) || isalnum((unsigned char)at[n]) || at[n] == '_' ? 0 : n;
}

/* The caller's name that stands here, of any group: the longest. */
static const char *eqnn__read_own(eqnn__reader *r)
{
    const char *best = NULL;
    for (eqnn__atom *a = eqnn__groups_of(r->c)->atom; a; a = a->next)
        if (a->rho && !a->dual && eqnn__is_name(r->at, a->name) > (best ? strlen(best) : 0))
            best = a->name;
    return best;
}

static int eqnn__expr_own(eqnn__reader *r, eqnn__expr *e, const char *name)
{
    const char *at = r->at;
    r->at += strlen(name);
    const eqnn_group *g = eqnn__read_owner(r);
    for (eqnn__atom *a = g ? eqnn__groups_of(r->c)->atom : NULL; a; a = a->next)
        if (a->group == g && a->rho && !a->dual && !strcmp(a->name, name))
            return eqnn__expr_atom(e, a);
    r->at = at;
    if (g) eqnn__expected(r, "a representation that is defined for this group");
    return 0;
}

static const eqnn__atom *eqnn__atom_psi(const eqnn_group *g, int k);
static const eqnn__atom *eqnn__atom_sign(const eqnn_group *g);

static int eqnn__read_psi(eqnn__reader *r, eqnn__expr *e)
{
    int k;
    if (eqnn__read_args(r, &k, 1) != 1) { eqnn__expected(r, "\"(\" and a number"); return 0; }
    const eqnn_group *g = eqnn__read_owner(r);
    if (!g || k > 0) return g && eqnn__expr_atom(e, eqnn__atom_psi(g, k));
    if (!eqnn__expr_number(r->c, e, 1)) return 0;
    e->number = -1;
    return 1;
}

static int eqnn__read_atom(eqnn__reader *r, eqnn__expr *e)
{
    const char *at = r->at, *own;
    size_t n = eqnn__is_name(at, "Vector");
    if (!n) n = eqnn__is_name(at, "V");
    if (n) {
        r->at += n;
        const eqnn_group *g = eqnn__read_owner(r);
        return g && eqnn__expr_atom(e, eqnn__atom_vector(g));
    }
    if (eqnn__is_name(at, "Scalar")) {
        r->at += 6;
        if (*r->at == '(' && !eqnn__read_owner(r)) return 0;
        if (!eqnn__expr_number(r->c, e, 1)) return 0;
        e->number = -1;
        return 1;
    }
    if (*at == 'T' && (isdigit((unsigned char)at[1]) || eqnn__is_name(at, "T"))) {
        r->at++;
        return eqnn__read_tensor(r, e);
    }
    if (eqnn__is_name(at, "psi")) { r->at += 3; return eqnn__read_psi(r, e); }
    if (eqnn__is_name(at, "P")) {
        r->at++;
        const eqnn_group *g = eqnn__read_owner(r);
        return g && eqnn__expr_atom(e, eqnn__atom_sign(g));
    }
    if ((own = eqnn__read_own(r)) != NULL) return eqnn__expr_own(r, e, own);
    eqnn__expected(r, "V, Scalar, T(p,q), a number, \"(\" or a name given to eqnn_rep_define");
    return 0;
}

/* a number, an atom or parentheses, then .T and ** n */
static int eqnn__read_factor(eqnn__reader *r, eqnn__expr *e)
{
    int good;
    memset(e, 0, sizeof *e);
    eqnn__spaces(r);
    if (isdigit((unsigned char)*r->at)) {
        int n = eqnn__read_int(r, "");
        good = n >= 0 && eqnn__expr_number(r->c, e, n);
    } else if (*r->at == '(') {
        r->at++;
        good = eqnn__read_parentheses(r, e);
    } else good = eqnn__read_atom(r, e);
    while (good && eqnn__accept(r, ".T")) {
        eqnn__expr dual;
        good = eqnn__expr_dual(e, &dual);
        *e = dual;
    }
    if (good && eqnn__accept(r, "**")) {
        int n = eqnn__read_int(r, "a whole number");
        good = n >= 0 && eqnn__expr_power(e, n);
    }
    return good;
}

static int eqnn__read_product(eqnn__reader *r, eqnn__expr *e)
{
    eqnn__expr b;
    int good = eqnn__read_factor(r, e);
    while (good) {
        int number = isdigit((unsigned char)(r->at > r->text ? r->at[-1] : 'x')) && e->number >= 0;
        eqnn__spaces(r);
        if (*r->at == '*') r->at++;
        else if (!number || (!isalpha((unsigned char)*r->at) && *r->at != '(')) return 1; /* 2V */
        good = eqnn__read_factor(r, &b);
        if (good) good = eqnn__expr_combine(EQNN__EXPR_MULTIPLY, e, &b);
    }
    return 0;
}

static int eqnn__read_sum(eqnn__reader *r, eqnn__expr *e)
{
    eqnn__expr b;
    int good = eqnn__read_product(r, e);
    while (good && eqnn__accept(r, "+")) {
        good = eqnn__read_product(r, &b);
        if (good) good = eqnn__expr_combine(EQNN__EXPR_ADD, e, &b);
    }
    return good;
}

static int eqnn__read_map(eqnn__reader *r, eqnn__expr *e)
{
    eqnn__expr b;
    int good = eqnn__read_sum(r, e), forth = 0;
    while (good && ((forth = eqnn__accept(r, ">>")) != 0 || eqnn__accept(r, "<<"))) {
        good = eqnn__read_sum(r, &b);
        if (good) good = eqnn__expr_combine(forth ? EQNN__EXPR_MAP : EQNN__EXPR_MAP_BACK, e, &b);
    }
    return good;
}

EQNN_API const eqnn_rep *eqnn_rep_make(eqnn_ctx *c, const char *text, const eqnn_group *g)
{
    eqnn__reader r;
    eqnn__expr e;
    if (!c || c->failed || !eqnn__groups_of(c)) return NULL;
    c->op = "rep";
    if (!eqnn__group_at_home(c, g, "rep")) return NULL;
    eqnn__reader_start(&r, c, "rep", text ? text : "");
    r.group = g;
    int good = eqnn__read_map(&r, &e);
    eqnn__spaces(&r);
    if (good && *r.at) {
        eqnn__expected(&r, "an operator or the end");
        good = 0;
    }
    if (good) return eqnn__rep_of(&e, r.text, r.used ? g : NULL);
    eqnn__reader_blame(&r);
    return NULL;
}

/* --- the same by functions --- */

/* How tightly the loosest operator of a name binds: 0 maps, 1 sums, 2 products, 3 powers and
   duals, 4 nothing. */
static int eqnn__name_level(const char *s)
{
    int depth = 0, level = 4;
    for (; *s; s++) {
        int here = 4;
        if (*s == '(') depth++;
        if (*s == ')') depth--;
        if (depth > 0) continue;
        if (*s == '>' || *s == '<') here = 0;
        if (*s == '+') here = 1;
        if (*s == '*') here = s[1] == '*' ? 3 : 2;
        if (*s == '.') here = 3;
        if (here == 3 && *s == '*') s++;
        if (here < level) level = here;
    }
    return level;
}

/* An operand's name: with its group when the other operand's is another, in parentheses when the
   operator binds tighter than what is inside. */
static const char *eqnn__operand(const eqnn_rep *a, const eqnn_group *open, int level)
{
    eqnn_ctx *c = a->ctx;
    if (a->open && a->open != open) return eqnn_format(c, "(%s)(%s)", a->name, a->open->name);
    return eqnn_format(c, eqnn__name_level(a->name) < level ? "(%s)" : "%s", a->name);
}

/* a's terms as an expression */
static int eqnn__expr_from(const eqnn_rep *a, eqnn__expr *e)
{
    if (!eqnn__expr_open(a->ctx, e, a->size, a->terms)) return 0;
    for (int i = 0; i < a->terms; i++) e->type[i] = a->term[i].type;
    if (a->size) memcpy(e->place, a->term[0].place, (size_t)a->size * sizeof *e->place);
    return 1;
}

static const eqnn_rep *eqnn__rep_two(const eqnn_rep *a, const eqnn_rep *b, int operation,
                                     const char *sign, int level)
{
    eqnn__expr x, y;
    if (!a || !b || a->ctx->failed) return NULL;
    a->ctx->op = "rep";
    if (a->ctx != b->ctx) {
        eqnn__fail(a->ctx, "rep: %s and %s belong to two contexts", a->name, b->name);
        return NULL;
    }
    const eqnn_group *open = !a->open ? b->open : !b->open || a->open == b->open ? a->open : NULL;
    const char *left = eqnn__operand(a, open, level);
    const char *right = eqnn__operand(b, open, level + (operation != EQNN__EXPR_ADD));
    const char *name = eqnn_format(a->ctx, "%s%s%s", left, sign, right);
    memset(&y, 0, sizeof y);
    int good = eqnn__expr_from(a, &x) && eqnn__expr_from(b, &y) &&
               eqnn__expr_combine(operation, &x, &y);
    if (good) return eqnn__rep_of(&x, name, open);
    return NULL;
}

EQNN_API const eqnn_rep *eqnn_rep_sum(const eqnn_rep *a, const eqnn_rep *b)
{
    return eqnn__rep_two(a, b, EQNN__EXPR_ADD, "+", 1);
}
EQNN_API const eqnn_rep *eqnn_rep_product(const eqnn_rep *a, const eqnn_rep *b)
{
    return eqnn__rep_two(a, b, EQNN__EXPR_MULTIPLY, "*", 2);
}
EQNN_API const eqnn_rep *eqnn_rep_map(const eqnn_rep *a, const eqnn_rep *b)
{
    return eqnn__rep_two(a, b, EQNN__EXPR_MAP, ">>", 0);
}

EQNN_API const eqnn_rep *eqnn_rep_vector(const eqnn_group *g)
{
    eqnn__expr e;
    if (!g || g->ctx->failed) return NULL;
    g->ctx->op = "rep";
    return eqnn__expr_atom(&e, eqnn__atom_vector(g)) ? eqnn__rep_of(&e, "V", g) : NULL;
}

EQNN_API const eqnn_rep *eqnn_rep_scalars(eqnn_ctx *c, int n)
{
    eqnn__expr e;
    if (!c || c->failed || !eqnn__groups_of(c)) return NULL;
    c->op = "rep";
    if (n < 0) return (const eqnn_rep *)eqnn__fail(c, "rep: %d scalars make no sense", n);
    return eqnn__expr_number(c, &e, n) ? eqnn__rep_of(&e, eqnn_format(c, "%d*Scalar", n), NULL)
                                       : NULL;
}

EQNN_API const eqnn_rep *eqnn_rep_tensor(const eqnn_group *g, int p, int q)
{
    eqnn__expr e;
    if (!g || g->ctx->failed) return NULL;
    g->ctx->op = "rep";
    if (p < 0 || q < 0 || p > EQNN__FACTORS || q > EQNN__FACTORS - p)
        return (const eqnn_rep *)eqnn__fail(
            g->ctx, "rep: T(%d,%d): from 0 to %d factors are possible", p, q, EQNN__FACTORS);
    if (eqnn__expr_tensor(&e, g, p, q))
        return eqnn__rep_of(&e, eqnn_format(g->ctx, "T(%d,%d)", p, q), g);
    return NULL;
}

/* Something of one representation: copies, power or dual. */
enum { EQNN__EXPR_COPIES, EQNN__EXPR_POWER, EQNN__EXPR_DUAL };
static const eqnn_rep *eqnn__rep_one(const eqnn_rep *a, int operation, int n)
{
    eqnn__expr x, y;
    const char *name;
    if (!a || a->ctx->failed) return NULL;
    a->ctx->op = "rep";
    if (n < 0)
        return (const eqnn_rep *)eqnn__fail(a->ctx, "rep: %d times or to the power %d %s",
                                                    n, n, a->name);
    if (operation == EQNN__EXPR_COPIES)
        name = eqnn_format(a->ctx, "%d*%s", n, eqnn__operand(a, a->open, 3));
    else if (operation == EQNN__EXPR_POWER)
        name = eqnn_format(a->ctx, "%s**%d", eqnn__operand(a, a->open, 4), n);
    else name = eqnn_format(a->ctx, "%s.T", eqnn__operand(a, a->open, 4));
    int good = eqnn__expr_from(a, &x);
    memset(&y, 0, sizeof y);
    if (good && operation == EQNN__EXPR_POWER) good = eqnn__expr_power(&x, n);
    else if (good) {
        good = operation == EQNN__EXPR_DUAL ? eqnn__expr_dual(&x, &y)
                                            : eqnn__expr_copies(n, &x, &y);
        x = y;
    }
    if (good) return eqnn__rep_of(&x, name, a->open);
    return NULL;
}

EQNN_API const eqnn_rep *eqnn_rep_times(int n, const eqnn_rep *a)
{
    return eqnn__rep_one(a, EQNN__EXPR_COPIES, n);
}
EQNN_API const eqnn_rep *eqnn_rep_power(const eqnn_rep *a, int n)
{
    return eqnn__rep_one(a, EQNN__EXPR_POWER, n);
}
EQNN_API const eqnn_rep *eqnn_rep_dual(const eqnn_rep *a)
{
    return eqnn__rep_one(a, EQNN__EXPR_DUAL, 0);
}

/* --- representations of your own --- */

/* The derivative of rho(exp(t A)) at t = 0 by central differences at t, t/2, t/4, ..., from which
   Richardson's extrapolation takes the errors t^2, t^4, ... away one after the other. */
#define EQNN__LEVELS 6
static int eqnn__rho_difference(const eqnn__atom *a, const double *A, double t, double *work,
                                double *out)
{
    const eqnn_group *g = a->group;
    size_t all = eqnn__square(g->dim, g->field), n = eqnn__square(a->dim, g->field);
    double *scaled = work, *element = work + all, *back = work + 2 * all;
    for (int side = 0; side < 2; side++) {
        for (size_t i = 0; i < all; i++) scaled[i] = side ? -t * A[i] : t * A[i];
        if (!eqnn__expm(g->ctx, g->dim, g->field, scaled, element)) return 0;
        memset(side ? back : out, 0, n * sizeof *out);
        a->rho(element, g->dim, side ? back : out, a->dim, a->user);
    }
    for (size_t i = 0; i < n; i++) out[i] = (out[i] - back[i]) / (2 * t);
    return 1;
}

static int eqnn__rho_derivative(const eqnn__atom *a, const double *A, double *out)
{
    const eqnn_group *g = a->group;
    size_t all = eqnn__square(g->dim, g->field), n = eqnn__square(a->dim, g->field);
    size_t room = 2 * all + (EQNN__LEVELS + 1) * n;
    double norm = eqnn__mat_norm(g->field, g->dim, A), t = norm > 0 ? 0.25 / norm : 1;
    double *work = (double *)eqnn__take(g->ctx, room, sizeof *work);
    double *D = work + 2 * all + n;
    int good = work != NULL;
    for (int k = 0; good && k < EQNN__LEVELS; k++, t /= 2)
        good = eqnn__rho_difference(a, A, t, work, D + (size_t)k * n);
    double four = 4;
    for (int j = 1; good && j < EQNN__LEVELS; j++, four *= 4)
        for (int k = EQNN__LEVELS - 1; k >= j; k--)
            for (size_t i = 0; i < n; i++) {
                double *fine = D + (size_t)k * n + i, coarse = fine[-(ptrdiff_t)n];
                *fine += (*fine - coarse) / (four - 1);
            }
    if (good) memcpy(out, D + (EQNN__LEVELS - 1) * n, n * sizeof *out);
    eqnn__drop(g->ctx, work, room, sizeof *work);
    return good;
}

/* max |a - b| / max(1, max |b|); infinite when something is not finite */
static double eqnn__mat_apart(const double *a, const double *b, size_t n)
{
    double most = 0, size = 1;
    for (size_t i = 0; i < n; i++) {
        double d = fabs(a[i] - b[i]);
        if (!(d < INFINITY)) return INFINITY;
        if (d > most) most = d;
        if (fabs(b[i]) > size) size = fabs(b[i]);
    }
    return most / size;
}

/* |rho(x) rho(y) - rho(xy)| of x[0], x[1]; room for a third element, and for four images in r */
static double eqnn__rho_pair(const eqnn__atom *a, double *x, double *r)
{
    int f = a->group->field, d = a->group->dim, dim = a->dim;
    size_t all = eqnn__square(d, f), n = eqnn__square(dim, f);
    eqnn__mat_mul(f, d, x, x + all, x + 2 * all);
    for (size_t k = 0; k < 3; k++) a->rho(x + k * all, d, r + k * n, dim, a->user);
    eqnn__mat_mul(f, dim, r, r + n, r + 3 * n);
    return eqnn__mat_apart(r + 3 * n, r + 2 * n, n);
}

/* The same over pairs of random elements, and of every discrete generator with a random element and
   with itself: in a small group a few random pairs may all have a 1 among them. */
static double eqnn__rho_pairs(const eqnn__atom *a, double *x, double *r)
{
    enum { PAIRS = 16 };
    const eqnn_group *g = a->group;
    size_t all = eqnn__square(g->dim, g->field);
    double worst = 0;
    for (int k = -PAIRS; k < g->discrete; k++) {
        const char *name = eqnn_format(g->ctx, "eqnn_rep_define %d", k + PAIRS);
        if (!name || !eqnn_group_sample(g, name, 2, x)) return INFINITY;
        if (k >= 0) eqnn__group_generator(g, k, x);
        worst = fmax(worst, eqnn__rho_pair(a, x, r));
        if (k < 0) continue;
        memcpy(x + all, x, all * sizeof *x);
        worst = fmax(worst, eqnn__rho_pair(a, x, r));
    }
    return worst;
}

/* rho(1) = 1 and rho(x) rho(y) = rho(xy)? */
static int eqnn__rho_check(const eqnn__atom *a)
{
    const eqnn_group *g = a->group;
    eqnn_ctx *c = g->ctx;
    int f = g->field, d = g->dim, dim = a->dim;
    size_t all = eqnn__square(d, f), n = eqnn__square(dim, f), room = 3 * all + 4 * n;
    double *x = (double *)eqnn__take(c, room, sizeof *x), *r = x + 3 * all;
    if (!x) return 0;
    eqnn__mat_identity(f, d, x);
    eqnn__mat_identity(f, dim, r + n);
    a->rho(x, d, r, dim, a->user);
    double one = eqnn__mat_apart(r, r + n, n), two = one < 1e-8 ? eqnn__rho_pairs(a, x, r) : 0;
    if (!(one < 1e-8))
        eqnn__fail(c, "rep %s of %s: rho(1) differs from 1 by %.2g", a->name, g->name, one);
    else if (!(two < 1e-6))
        eqnn__fail(c, "rep %s of %s: rho(x) rho(y) differs from rho(xy) by %.2g: no representation",
                   a->name, g->name, two);
    eqnn__drop(c, x, room, sizeof *x);
    return !c->failed;
}

/* Is drho(A) = B as given? Then exp(t B) = rho(exp(t A)); t makes both small enough for exp to be
   one to one. */
static int eqnn__drho_check(const eqnn__atom *a, int k)
{
    const eqnn_group *g = a->group;
    int f = g->field, d = g->dim, dim = a->dim;
    size_t all = eqnn__square(d, f), n = eqnn__square(dim, f), room = 2 * all + 2 * n;
    const double *A = g->A + (size_t)k * all, *B = a->A + (size_t)k * n;
    double norm = fmax(eqnn__mat_norm(f, d, A), eqnn__mat_norm(f, dim, B));
    double t = norm > 0 ? 0.25 / norm : 1, *x = (double *)eqnn__take(g->ctx, room, sizeof *x);
    if (!x) return 0;
    double *y = x + all, *r = y + all, *e = r + n;
    for (size_t i = 0; i < all; i++) x[i] = t * A[i];
    for (size_t i = 0; i < n; i++) r[i] = t * B[i];
    if (eqnn__expm(g->ctx, d, f, x, y) && eqnn__expm(g->ctx, dim, f, r, e)) {
        a->rho(y, d, r, dim, a->user);
        double apart = eqnn__mat_apart(r, e, n);
        if (!(apart < 1e-6))
            eqnn__fail(g->ctx, "rep %s of %s: drho of Lie generator %d is not the derivative of "
                               "rho (exp of it differs by %.2g)", a->name, g->name, k, apart);
    }
    eqnn__drop(g->ctx, x, room, sizeof *x);
    return !g->ctx->failed;
}

/* Images of all generators. */
static int eqnn__rho_images(eqnn__atom *a, eqnn_rep_function drho)
{
    const eqnn_group *g = a->group;
    eqnn_ctx *c = g->ctx;
    size_t all = eqnn__square(g->dim, g->field), n = eqnn__square(a->dim, g->field);
    double *A = (double *)eqnn__keep_alloc(c, (size_t)g->lie * n * sizeof *A);
    double *h = (double *)eqnn__keep_alloc(c, (size_t)g->discrete * n * sizeof *h);
    double *x = (double *)eqnn__take(c, all, sizeof *x);
    int good = A && h && x;
    for (int k = 0; good && k < g->lie; k++) {
        const double *from = g->A + (size_t)k * all;
        if (drho) drho(from, g->dim, A + (size_t)k * n, a->dim, a->user);
        else good = eqnn__rho_derivative(a, from, A + (size_t)k * n);
    }
    for (int k = 0; good && k < g->discrete; k++) {
        eqnn__group_generator(g, k, x);
        a->rho(x, g->dim, h + (size_t)k * n, a->dim, a->user);
    }
    if (good && (eqnn__not_finite(A, n, g->lie) >= 0 || eqnn__not_finite(h, n, g->discrete) >= 0)) {
        eqnn__fail(c, "rep %s of %s: the image of a generator is not finite", a->name, g->name);
        good = 0;
    }
    a->A = A;
    a->h = h;
    eqnn__drop(c, x, all, sizeof *x);
    for (int k = 0; good && drho && k < g->lie; k++) good = eqnn__drho_check(a, k);
    return good;
}

/* Orthogonal, permutations? As for groups. */
static int eqnn__rho_flags(eqnn__atom *a)
{
    const eqnn_group *g = a->group;
    eqnn__draft d;
    eqnn__draft_start(&d, g->ctx, a->name);
    int good = eqnn__draft_open(&d, a->dim, g->lie, g->discrete, g->field, 0);
    size_t n = eqnn__square(a->dim, g->field);
    if (good && g->lie) memcpy(d.A, a->A, (size_t)g->lie * n * sizeof *d.A);
    if (good && g->discrete) memcpy(d.h, a->h, (size_t)g->discrete * n * sizeof *d.h);
    if (good) {
        double most = 0;
        a->orthogonal = eqnn__find_orthogonal(&d);
        for (size_t i = 0; i < (size_t)g->lie * n; i++) most = fmax(most, fabs(d.A[i]));
        if (most == 0) d.lie = 0; /* Lie generators that do nothing */
        good = eqnn__find_permutations(&d);
        d.lie = g->lie;
    }
    if (good && d.perm) {
        a->permutation = 1;
        size_t places = (size_t)g->discrete * (size_t)a->dim;
        a->perm = (int *)eqnn__keep_copy(g->ctx, d.perm, places, sizeof(int));
        good = a->perm != NULL;
    }
    eqnn__draft_free(&d);
    return good;
}

static const eqnn__atom *eqnn__atom_define(const eqnn_group *g, const char *name, int dim,
                                           eqnn_rep_function rho, eqnn_rep_function drho,
                                           const void *user, size_t user_size)
{
    eqnn_ctx *c = g->ctx;
    eqnn__atom *a = (eqnn__atom *)eqnn__keep_alloc(c, sizeof *a);
    if (!a) return NULL;
    a->group = g;
    a->name = eqnn__keep_string(c, name);
    a->dim = dim;
    a->rho = rho;
    a->drho = drho;
    a->user = user_size ? eqnn__keep_copy(c, user, user_size, 1) : user;
    if (!a->name || (user_size && !a->user)) return NULL;
    if (!eqnn__rho_check(a) || !eqnn__rho_images(a, drho) || !eqnn__rho_flags(a)) return NULL;
    a->key = eqnn__atom_key(a);
    for (eqnn__atom *b = eqnn__groups_of(c)->atom; b; b = b->next)
        if (b->group == g && b->rho && !b->dual && !strcmp(b->name, name)) {
            if (b->key == a->key) return b;
            eqnn__fail(c, "rep %s of %s is defined already, differently", name, g->name);
            return NULL;
        }
    return eqnn__atom_add(a);
}

/* "psi2", "ir(3)": a letter, letters and digits, then perhaps something in parentheses; and nothing
   that means something already. */
static int eqnn__name_good(const char *s)
{
    static const char *const taken[] = { "V", "Vector", "Scalar", "T", "P", "psi" };
    size_t n = 0;
    for (int i = 0; i < 6; i++) {
        size_t k = strlen(taken[i]);
        if (!strncmp(s, taken[i], k) && (s[k] == 0 || s[k] == '(')) return 0;
    }
    if (!isalpha((unsigned char)s[0]) || (s[0] == 'T' && isdigit((unsigned char)s[1]))) return 0;
    while (isalnum((unsigned char)s[n]) || s[n] == '_') n++;
    return s[n] == 0 || (s[n] == '(' && *eqnn__closing(s + n + 1) && !eqnn__closing(s + n + 1)[1]);
}

EQNN_API const eqnn_rep *eqnn_rep_define(const eqnn_group *g, const char *name, int dim,
                                         eqnn_rep_function rho, eqnn_rep_function drho,
                                         const void *user, size_t user_size)
{
    eqnn__expr e;
    if (!g || g->ctx->failed) return NULL;
    g->ctx->op = "rep_define";
    if (!name || !eqnn__name_good(name) || dim < 1 || dim > 30000 || !rho || (user_size && !user))
        return (const eqnn_rep *)eqnn__fail(
            g->ctx,
            "rep_define: \"%s\" of %d dimensions%s: it needs a name of letters and digits that is "
            "not V, Vector, Scalar, T, P or psi, at least one dimension, and a function",
            name ? name : "", dim, rho ? "" : " without a function");
    return eqnn__expr_atom(&e, eqnn__atom_define(g, name, dim, rho, drho, user, user_size))
               ? eqnn__rep_of(&e, name, g)
               : NULL;
}

/* psi(k): R^k, an irrep of the plane's rotations */
static void eqnn__psi_rho(const double *g, int d, double *out, int dim, const void *user)
{
    double x[4] = { 1, 0, 0, 1 }, y[4];
    for (int i = 0; i < *(const int *)user; i++) {
        eqnn__mat_mul(1, d, x, g, y);
        memcpy(x, y, sizeof x);
    }
    memcpy(out, x, (size_t)(dim * dim) * sizeof *out);
}

static void eqnn__psi_drho(const double *A, int d, double *out, int dim, const void *user)
{
    for (int i = 0; i < d * dim; i++) out[i] = *(const int *)user * A[i];
}

static const eqnn__atom *eqnn__atom_psi(const eqnn_group *g, int k)
{
    int good = g->dim == 2 && g->orthogonal;
    for (int i = 0; good && i < g->discrete; i++) {
        double h[4];
        eqnn__group_generator(g, i, h);
        good = h[0] * h[3] - h[1] * h[2] > 0;
    }
    if (!good || k > 1000000) {
        eqnn__fail(g->ctx, "rep psi(%d): %s is not a group of rotations of the plane (SO(2), C(k))",
                   k, g->name);
        return NULL;
    }
    return eqnn__atom_define(g, eqnn_format(g->ctx, "psi(%d)", k), 2, eqnn__psi_rho, eqnn__psi_drho,
                             &k, sizeof k);
}

/* P: the sign of the determinant; user is the context */
static void eqnn__sign_rho(const double *g, int d, double *out, int dim, const void *user)
{
    eqnn_ctx *c = *(eqnn_ctx *const *)user;
    size_t all = (size_t)d * (size_t)d;
    double det[2] = { 1, 0 }, *work = (double *)eqnn__take(c, all, sizeof *work);
    if (work) memcpy(work, g, all * sizeof *work);
    if (work) eqnn__mat_det(1, d, work, det);
    for (int i = 0; i < dim; i++) out[i] = det[0] < 0 ? -1 : 1;
    eqnn__drop(c, work, all, sizeof *work);
}

static void eqnn__sign_drho(const double *A, int d, double *out, int dim, const void *user)
{
    (void)A;
    (void)d;
    (void)user;
    memset(out, 0, (size_t)(dim * dim) * sizeof *out);
}

static const eqnn__atom *eqnn__atom_sign(const eqnn_group *g)
{
    if (g->field == 2) {
        eqnn__fail(g->ctx, "rep P: %s is complex, its determinants have no sign", g->name);
        return NULL;
    }
    for (eqnn__atom *a = eqnn__groups_of(g->ctx)->atom; a; a = a->next)
        if (a->group == g && a->rho == eqnn__sign_rho) return a;
    return eqnn__atom_define(g, "P", 1, eqnn__sign_rho, eqnn__sign_drho, &g->ctx, sizeof g->ctx);
}

/* --- what they are --- */

EQNN_API const char *eqnn_rep_name(const eqnn_rep *r) { return r ? r->name : ""; }
EQNN_API int eqnn_rep_size(const eqnn_rep *r) { return r ? r->size : 0; }
EQNN_API int eqnn_rep_permutation(const eqnn_rep *r) { return r && r->permutation; }

EQNN_API int eqnn_rep_same(const eqnn_rep *a, const eqnn_rep *b)
{
    return a && b && (a == b || eqnn__terms_same(a, b));
}

/* One gate for each copy that pointwise functions would break. */
EQNN_API int eqnn_rep_gates(const eqnn_rep *r)
{
    int gates = 0;
    for (int i = 0; r && i < r->terms; i++) gates += !r->term[i].type->permutation;
    return gates;
}

/* Adds the groups of a type to a list without doubles; how many there are then. */
static int eqnn__list_groups(const eqnn__monomial *m, const eqnn_group **groups, int n, int room)
{
    for (int k = 0; k < m->factors; k++) {
        const eqnn_group *g = m->factor[k]->group;
        int i = 0;
        while (i < n && groups[i] != g) i++;
        if (i == n && n < room) groups[n++] = g;
    }
    return n;
}

EQNN_API int eqnn_rep_groups(const eqnn_rep *r, const eqnn_group **groups, int room)
{
    int n = 0;
    if (!groups) room = 0;
    for (int i = 0; r && i < r->terms; i++)
        if (i == 0 || r->term[i].type != r->term[i - 1].type)
            n = eqnn__list_groups(r->term[i].type, groups, n, room);
    return n;
}

/* --- elements at work --- */

/* The matrices of the atoms of some types for one element of each group. */
#define EQNN__ATOMS 64
typedef struct eqnn__action {
    eqnn_ctx *c;
    const eqnn_group *const *groups;
    const double *const *elements;
    int n, count, lie; /* lie: elements are of the Lie algebras */
    const eqnn__atom *atom[EQNN__ATOMS];
    double *matrix[EQNN__ATOMS];
} eqnn__action;

static void eqnn__action_free(eqnn__action *s)
{
    while (s->count > 0) {
        const eqnn__atom *a = s->atom[--s->count];
        eqnn__drop(s->c, s->matrix[s->count], eqnn__square(a->dim, a->group->field),
                   sizeof(double));
    }
}

static void eqnn__action_start(eqnn__action *s, eqnn_ctx *c, const eqnn_group *const *groups,
                               const double *const *elements, int n)
{
    s->c = c;
    s->groups = groups;
    s->elements = elements;
    s->n = groups && elements ? n : 0;
    s->count = s->lie = 0;
}

/* out = the matrix of g in this representation */
static int eqnn__atom_rho(const eqnn__atom *a, const double *g, double *out)
{
    int f = a->group->field, d = a->group->dim;
    size_t n = eqnn__square(a->dim, f);
    if (!a->dual && a->rho) a->rho(g, d, out, a->dim, a->user);
    if (!a->dual && !a->rho) memcpy(out, g, n * sizeof *out);
    if (!a->dual) return 1;
    double *x = (double *)eqnn__take(a->group->ctx, n, sizeof *x);
    int good = x != NULL;
    if (x && a->rho) a->rho(g, d, x, a->dim, a->user);
    if (good) good = eqnn__mat_dual(a->group->ctx, f, a->dim, a->rho ? x : g, out);
    eqnn__drop(a->group->ctx, x, n, sizeof *x);
    if (!good) eqnn__fail(a->group->ctx, "rep: an element of %s has no inverse", a->group->name);
    return good;
}

/* out = the derivative of the matrix of exp(t A); of the dual minus its transpose */
static int eqnn__atom_drho(const eqnn__atom *a, const double *A, double *out)
{
    int f = a->group->field, good = 1;
    size_t n = eqnn__square(a->dim, f);
    if (!a->rho) memcpy(out, A, n * sizeof *out);
    else if (a->drho) a->drho(A, a->group->dim, out, a->dim, a->user);
    else good = eqnn__rho_derivative(a, A, out);
    if (!a->dual || !good) return good;
    double *x = (double *)eqnn__take(a->group->ctx, n, sizeof *x);
    for (size_t i = 0; x && i < n; i++) x[i] = 0.0 - out[i];
    if (x) eqnn__mat_transpose(f, a->dim, x, out);
    eqnn__drop(a->group->ctx, x, n, sizeof *x);
    return x != NULL;
}

static const double *eqnn__action_on(eqnn__action *s, const eqnn__atom *a)
{
    int i = 0, k = 0;
    while (i < s->count && s->atom[i] != a) i++;
    if (i < s->count) return s->matrix[i];
    while (k < s->n && s->groups[k] != a->group) k++;
    int absent = k == s->n || !s->elements[k];
    if ((absent && !s->lie) || s->count == EQNN__ATOMS) {
        eqnn__fail(s->c, s->count == EQNN__ATOMS ? "rep: more than 64 kinds of factors with %s"
                                                 : "rep: no element of %s was given",
                   a->group->name);
        return NULL;
    }
    double *m = (double *)eqnn__take(s->c, eqnn__square(a->dim, a->group->field), sizeof *m);
    if (!m) return NULL;
    s->atom[s->count] = a;
    s->matrix[s->count++] = m;
    if (absent) return m; /* zeros */
    return (s->lie ? eqnn__atom_drho(a, s->elements[k], m) : eqnn__atom_rho(a, s->elements[k], m))
               ? m : NULL;
}

/* y[o, i, r] = sum_j m[i, j] x[o, j, r]: a matrix along one axis, fm numbers an entry of m, rows of
   inner numbers (pairs when fm is 2) */
static void eqnn__along_axis(const double *m, int fm, int outer, int d, size_t inner,
                             const double *x, double *y)
{
    memset(y, 0, (size_t)outer * (size_t)d * inner * sizeof *y);
    for (int o = 0; o < outer; o++, x += (size_t)d * inner, y += (size_t)d * inner)
        for (int i = 0; i < d; i++)
            for (int j = 0; j < d; j++) {
                const double *a = m + (i * d + j) * fm, *from = x + (size_t)j * inner;
                double *to = y + (size_t)i * inner;
                double minus[2];
                minus[0] = -a[0];
                minus[1] = fm == 2 ? -a[1] : 0;
                eqnn__row_less(fm, inner, to, from, minus);
            }
}

/* x [dim][inner] becomes rho x, axis by axis; work has its size. inner counts f numbers an
   entry. */
static int eqnn__monomial_apply(const eqnn__monomial *m, eqnn__action *s, size_t inner, double *x,
                                double *work)
{
    int outer = 1;
    size_t rest = (size_t)m->dim, all = (size_t)m->dim * inner;
    for (int k = 0; k < m->factors; k++) {
        const eqnn__atom *a = m->factor[k];
        const double *image = eqnn__action_on(s, a);
        if (!image) return 0;
        rest /= (size_t)a->dim;
        eqnn__along_axis(image, a->group->field, outer, a->dim, rest * inner, x, work);
        memcpy(x, work, all * sizeof *x);
        outer *= a->dim;
    }
    return 1;
}

/* out [dim][dim] becomes the sum over factors of 1 x ... x A x ... x 1; work has twice its size. */
static int eqnn__monomial_sum(const eqnn__monomial *m, eqnn__action *s, double *out, double *work)
{
    int outer = 1;
    size_t w = (size_t)m->field, rest = (size_t)m->dim, all = eqnn__square(m->dim, m->field);
    memset(out, 0, all * sizeof *out);
    for (int k = 0; k < m->factors; k++) {
        const eqnn__atom *a = m->factor[k];
        const double *image = eqnn__action_on(s, a);
        if (!image) return 0;
        rest /= (size_t)a->dim;
        eqnn__mat_identity(m->field, m->dim, work);
        eqnn__along_axis(image, a->group->field, outer, a->dim, rest * (size_t)m->dim * w, work,
                         work + all);
        for (size_t i = 0; i < all; i++) out[i] += work[all + i];
        outer *= a->dim;
    }
    return 1;
}

static int eqnn__largest_type(const eqnn_rep *r)
{
    int most = 0;
    for (int i = 0; i < r->terms; i++)
        if (r->term[i].type->dim > most) most = r->term[i].type->dim;
    return most;
}

EQNN_API int eqnn_rep_apply(const eqnn_rep *r, const eqnn_group *const *groups,
                            const double *const *elements, int n, const double *x, double *y)
{
    eqnn__action s;
    if (!r || r->ctx->failed) return 0;
    r->ctx->op = "rep_apply";
    if (!eqnn__given(r->ctx, x && y, "rep_apply", "the vectors are")) return 0;
    size_t f = (size_t)r->field, room = 2 * f * (size_t)eqnn__largest_type(r);
    double *v = (double *)eqnn__take(r->ctx, room, sizeof *v), *work = v + room / 2;
    int good = v != NULL;
    eqnn__action_start(&s, r->ctx, groups, elements, n);
    for (int t = 0; good && t < r->terms; t++) {
        const eqnn__monomial *m = r->term[t].type;
        const int *place = r->term[t].place;
        size_t dim = (size_t)m->dim;
        for (size_t k = 0; k < dim * f; k++) v[k] = x[(size_t)place[k / f] * f + k % f];
        good = eqnn__monomial_apply(m, &s, f, v, work);
        for (size_t k = 0; good && k < dim * f; k++) y[(size_t)place[k / f] * f + k % f] = v[k];
    }
    eqnn__action_free(&s);
    eqnn__drop(r->ctx, v, room, sizeof *v);
    return good;
}

/* Each type's matrix is what it does to the unit vectors, all at once. */
static int eqnn__rep_matrix(const eqnn_rep *r, const eqnn_group *const *groups,
                            const double *const *elements, int n, int lie, double *out)
{
    eqnn__action s;
    int most = eqnn__largest_type(r), f = r->field;
    size_t all = eqnn__square(most, f), size = (size_t)r->size;
    size_t room = (lie ? 3 : 2) * all;
    double *v = (double *)eqnn__take(r->ctx, room, sizeof *v);
    int good = v != NULL;
    eqnn__action_start(&s, r->ctx, groups, elements, n);
    s.lie = lie;
    if (good) memset(out, 0, size * size * (size_t)f * sizeof *out);
    for (int t = 0; good && t < r->terms; t++) {
        const eqnn__monomial *m = r->term[t].type;
        const int *place = r->term[t].place;
        size_t dim = (size_t)m->dim, w = (size_t)f;
        if (t == 0 || m != r->term[t - 1].type) {
            eqnn__mat_identity(f, m->dim, v);
            good = lie ? eqnn__monomial_sum(m, &s, v, v + all)
                       : eqnn__monomial_apply(m, &s, dim * w, v, v + all);
        }
        for (size_t i = 0; good && i < dim; i++)
            for (size_t j = 0; j < dim * w; j++)
                out[((size_t)place[i] * size + (size_t)place[j / w]) * w + j % w] =
                    v[i * dim * w + j];
    }
    eqnn__action_free(&s);
    eqnn__drop(r->ctx, v, room, sizeof *v);
    return good;
}

EQNN_API int eqnn_rep_matrix(const eqnn_rep *r, const eqnn_group *const *groups,
                             const double *const *elements, int n, double *out)
{
    if (!r || r->ctx->failed) return 0;
    r->ctx->op = "rep_matrix";
    if (!eqnn__given(r->ctx, out != NULL, "rep_matrix", "the place for the matrix is")) return 0;
    return eqnn__rep_matrix(r, groups, elements, n, 0, out);
}

EQNN_API int eqnn_rep_derivative(const eqnn_rep *r, const eqnn_group *const *groups,
                                 const double *const *A, int n, double *out)
{
    if (!r || r->ctx->failed) return 0;
    r->ctx->op = "rep_derivative";
    if (!eqnn__given(r->ctx, out != NULL, "rep_derivative", "the place for the matrix is"))
        return 0;
    return eqnn__rep_matrix(r, groups, A, n, 1, out);
}

/* --- tensors --- */

EQNN_API const eqnn_label *eqnn_rep_label(const eqnn_rep *r)
{
    if (!r || r->ctx->failed) return NULL;
    if (!r->label)
        eqnn__fail(r->ctx, "rep_label: %.200s is complex, tensors are real: take eqnn_group_real",
                   r->name);
    return r->label;
}

/* The columns to take: component m of copy u of a type stands at m * copies + u in its block. */
static int eqnn__rep_columns(eqnn_rep *r)
{
    eqnn_ctx *c = r->ctx;
    size_t n = (size_t)r->size;
    if (r->to) return 1;
    int *from = (int *)eqnn__take(c, n, sizeof *from), *to = (int *)eqnn__take(c, n, sizeof *to);
    for (int t = 0, start = 0, copies; from && to && t < r->terms; t += copies) {
        int dim = r->term[t].type->dim;
        for (copies = 1; t + copies < r->terms && r->term[t + copies].type == r->term[t].type;)
            copies++;
        for (int u = 0; u < copies; u++)
            for (int m = 0; m < dim; m++) {
                from[start + m * copies + u] = r->term[t + u].place[m];
                to[r->term[t + u].place[m]] = start + m * copies + u;
            }
        start += dim * copies;
    }
    r->same = 1;
    for (int i = 0; from && to && i < r->size; i++) r->same &= from[i] == i;
    if (from && to) r->from = eqnn_ints_make(c, r->size, from, r->size, 1);
    if (r->from) r->to = eqnn_ints_make(c, r->size, to, r->size, 1);
    eqnn__drop(c, to, n, sizeof *to);
    eqnn__drop(c, from, n, sizeof *from);
    return r->to != NULL;
}

/* NULL is no representation. */
static int eqnn__rep_at_home(eqnn_ctx *c, const eqnn_rep *r, const char *op)
{
    return !r || eqnn__at_home(c, r->ctx, op, "the representation");
}

/* r's label when x can be converted. */
static const eqnn_label *eqnn__rep_fits(const eqnn_tensor *x, const eqnn_rep *r, const char *op)
{
    if (!r) { eqnn__fail(x->ctx, "%s: the representation is missing (NULL)", op); return NULL; }
    if (!eqnn__rep_at_home(x->ctx, r, op)) return NULL;
    if (x->cols != r->size) {
        eqnn__fail(x->ctx, "%s: [%d,%d] is no %.200s, which has %d columns", op, x->rows, x->cols,
                   r->name, r->size);
        return NULL;
    }
    return eqnn_rep_label(r) && eqnn__rep_columns((eqnn_rep *)r) ? r->label : NULL;
}

EQNN_API eqnn_tensor *eqnn_from_rep(eqnn_tensor *x, const eqnn_rep *r)
{
    if (eqnn__bad(x, "from_rep")) return NULL;
    const eqnn_label *label = eqnn__rep_fits(x, r, "from_rep");
    if (!label) return NULL;
    if (!eqnn__invariant(x->label))
        return eqnn__fail(x->ctx, "from_rep: the columns are %.200s in eqnn's order already",
                          x->label->name);
    return r->same ? eqnn_as(x, label) : eqnn__tag(eqnn_columns(eqnn__bare(x), r->from), label);
}

EQNN_API eqnn_tensor *eqnn_to_rep(eqnn_tensor *x, const eqnn_rep *r)
{
    if (eqnn__bad(x, "to_rep")) return NULL;
    const eqnn_label *label = eqnn__rep_fits(x, r, "to_rep");
    if (!label) return NULL;
    if (!eqnn__has_columns(x, label))
        return eqnn__fail(x->ctx, "to_rep: the columns are %.150s, not %.150s",
                          eqnn__label_text(x->label), label->name);
    return r->same ? eqnn_as(x, NULL) : eqnn_columns(eqnn__bare(x), r->to);
}

/* One block of all rows: [dim][copies] a row, as it stands. */
static int eqnn__turn_block(const eqnn_block *b, eqnn__action *s, const eqnn_tensor *x,
                            const eqnn_real *from, eqnn_real *out)
{
    const eqnn__monomial *m = (const eqnn__monomial *)b->type->user;
    size_t n = (size_t)b->copies * (size_t)b->type->dim, cols = (size_t)x->cols;
    double *v = (double *)eqnn__take(s->c, 2 * n, sizeof *v);
    int good = v != NULL;
    for (size_t r = 0; good && r < (size_t)x->rows; r++) {
        size_t at = r * cols + (size_t)b->start;
        for (size_t i = 0; i < n; i++) v[i] = (double)from[at + i];
        good = eqnn__monomial_apply(m, s, (size_t)b->copies, v, v + n);
        for (size_t i = 0; good && i < n; i++) out[at + i] = (eqnn_real)v[i];
    }
    eqnn__drop(s->c, v, 2 * n, sizeof *v);
    return good;
}

/* Is this a type of a matrix group, or an invariant number? Nothing else can be turned here. */
static int eqnn__turns(const eqnn_tensor *x, const eqnn_block *b, const char *op)
{
    const eqnn_type *t = b->type;
    if (t->kind == EQNN_TYPE_REP || (t->kind == EQNN_TYPE_IRREP && t->l == 0 && t->p == 1))
        return 1;
    eqnn__fail(x->ctx, "%s: %.200s: %s is no representation of a matrix group", op, x->label->name,
               t->name);
    return 0;
}

EQNN_API eqnn_tensor *eqnn_rep_turn(eqnn_tensor *x, const eqnn_group *const *groups,
                                    const double *const *elements, int n)
{
    eqnn__action s;
    if (eqnn__bad(x, "rep_turn")) return NULL;
    eqnn_tensor *y = eqnn_detach(x);
    const eqnn_real *from = y ? eqnn_data(x) : NULL;
    eqnn_real *to = from ? eqnn__to_write(x->ctx, y->data, eqnn__count(y)) : NULL;
    int good = to != NULL;
    if (to && to != y->data) memcpy(to, from, eqnn__count(y) * sizeof *to);
    eqnn__action_start(&s, x->ctx, groups, elements, n);
    for (int i = 0; good && x->label && i < x->label->blocks; i++) {
        const eqnn_block *b = &x->label->block[i];
        good = eqnn__turns(x, b, "rep_turn");
        if (good && b->type->kind == EQNN_TYPE_REP) good = eqnn__turn_block(b, &s, x, from, to);
    }
    eqnn__action_free(&s);
    if (good) eqnn__written(x->ctx, y->data, to, eqnn__count(y));
    return good ? y : NULL;
}

/* --- is it equivariant? --- */

static int eqnn__label_groups(const eqnn_tensor *x, const eqnn_group **groups, int n, int room)
{
    for (int i = 0; x->label && i < x->label->blocks; i++) {
        const eqnn_block *b = &x->label->block[i];
        if (!eqnn__turns(x, b, "rep_check")) return -1;
        if (b->type->kind == EQNN_TYPE_REP)
            n = eqnn__list_groups((const eqnn__monomial *)b->type->user, groups, n, room);
    }
    return n;
}

/* |f(g x) - g f(x)|: its root mean square over the sum of both sides', and the largest */
static double eqnn__rep_error(const eqnn_tensor *a, const eqnn_tensor *b, double *largest)
{
    double d = 0, size_a = 0, size_b = 0;
    size_t n = eqnn__count(a);
    const eqnn_real *p = eqnn_data(a), *q = eqnn_data(b);
    if (!p || !q) return NAN;
    for (size_t i = 0; i < n; i++) {
        double x = (double)p[i], y = (double)q[i];
        d += (x - y) * (x - y);
        size_a += x * x;
        size_b += y * y;
        if (!(fabs(x - y) <= *largest)) *largest = fabs(x - y);
    }
    return d > 0 ? sqrt(d) / (sqrt(size_a) + sqrt(size_b)) : d;
}

/* One element of each group. */
#define EQNN__GROUPS 16
static double eqnn__rep_trial(eqnn_function f, eqnn_tensor *const *x, int n, void *user, int trial,
                              eqnn_tensor *y, double *largest)
{
    eqnn_ctx *c = y->ctx;
    const eqnn_group *groups[EQNN__GROUPS];
    double *element[EQNN__GROUPS], error = NAN;
    int count = eqnn__label_groups(y, groups, 0, EQNN__GROUPS);
    for (int i = 0; count >= 0 && i < n; i++)
        count = eqnn__label_groups(x[i], groups, count, EQNN__GROUPS);
    eqnn_mark before = eqnn_mark_make(c);
    for (int k = 0; k < count; k++) {
        size_t all = eqnn__square(groups[k]->dim, groups[k]->field);
        element[k] = (double *)eqnn__step_alloc(c, all * sizeof(double));
        const char *name = eqnn_format(c, "rep_check %d %s", trial, groups[k]->name);
        if (!element[k] || !eqnn_group_sample(groups[k], name, 1, element[k])) return NAN;
    }
    eqnn_tensor **turned = (eqnn_tensor **)eqnn__step_alloc(c, (size_t)n * sizeof *turned);
    const double *const *g = (const double *const *)element;
    for (int i = 0; turned && count >= 0 && i < n; i++)
        turned[i] = eqnn_rep_turn(x[i], groups, g, count);
    if (count < 0 || eqnn_error(c)) return NAN;
    eqnn_tensor *a = f(turned, n, user), *b = eqnn_rep_turn(y, groups, g, count);
    if (!a || !b) return NAN;
    if (a->rows != b->rows || a->cols != b->cols || !eqnn__label_same(a->label, b->label))
        eqnn__fail(c, "rep_check: the result is [%d,%d] %.150s, of turned input [%d,%d] %.150s",
                   b->rows, b->cols, eqnn__label_text(b->label), a->rows, a->cols,
                   eqnn__label_text(a->label));
    else error = eqnn__rep_error(a, b, largest);
    eqnn_rewind(before, NULL);
    return error;
}

EQNN_API double eqnn_rep_check(eqnn_function f, eqnn_tensor *const *x, int n, void *user,
                               int trials, double *absolute)
{
    double worst = 0, largest = 0;
    if (absolute) *absolute = NAN;
    for (int i = 0; i < n; i++)
        if (eqnn__bad(x[i], "rep_check")) return NAN;
    if (n > 0 && !eqnn__given(x[0]->ctx, f != NULL, "rep_check", "the function is")) return NAN;
    if (n > 0 && trials < 1) {
        eqnn__fail(x[0]->ctx, "rep_check: %d trials show nothing", trials);
        return NAN;
    }
    eqnn_tensor *y = n > 0 ? f(x, n, user) : NULL;
    if (!y) return NAN;
    for (int t = 0; t < trials; t++) {
        double e = eqnn__rep_trial(f, x, n, user, t, y, &largest);
        if (!(e <= worst)) worst = e;
        if (e != e) break;
    }
    if (absolute) *absolute = worst == worst ? largest : NAN;
    return worst;
}

/* --- a representation for hidden layers --- */

/* Tensors of some rank in each group, and how many of them a hidden layer has. */
#define EQNN__MIXED 8
typedef struct eqnn__kind {
    double dim;
    int count, ranks, rank[EQNN__MIXED];
} eqnn__kind;

static int eqnn__kind_compare(const void *a, const void *b)
{
    const eqnn__kind *x = (const eqnn__kind *)a, *y = (const eqnn__kind *)b;
    if (x->dim < y->dim || x->dim > y->dim) return x->dim < y->dim ? -1 : 1;
    return x->ranks != y->ranks ? x->ranks - y->ranks : memcmp(y->rank, x->rank, sizeof x->rank);
}

/* All kinds of at most so many components, in the order of an odometer; out NULL: how many. In one
   dimension powers cost nothing; there ranks end at 8, before maps have too many factors. */
static int eqnn__kinds(const eqnn_group *const *g, int n, double largest, eqnn__kind *out)
{
    eqnn__kind k;
    int count = 0, most = EQNN__FACTORS - 2;
    memset(&k, 0, sizeof k);
    k.dim = 1;
    for (int i = 0; i < n; i++)
        if (g[i]->dim == 1) most = 8;
    for (int i = 0; i < n;) {
        if (out) out[count] = k;
        count++;
        for (i = 0; i < n; i++) {
            k.rank[i]++, k.ranks++, k.dim *= g[i]->dim;
            if (k.dim <= largest && k.ranks <= most) break;
            for (; k.rank[i] > 0; k.rank[i]--, k.ranks--) k.dim /= g[i]->dim;
        }
    }
    return count;
}

/* How many tensors of each kind (EMLP, section 3.3 and its code, where there is one group): as long
   as channels c are left, the n smallest kinds share them, for the largest n for which n tensors of
   the n-th fit, n dim_n <= c; that gets one, each other one as many as fit into dim_n. Of one group
   of d dimensions ranks r, r - 1, r - 2, ... get 1, d, d^2, ... */
static void eqnn__uniform_counts(eqnn__kind *kind, int kinds, int channels)
{
    for (int c = channels; c > 0;) {
        int n = 1;
        while (n < kinds && (n + 1) * kind[n].dim <= c) n++;
        for (int k = 0; k < n; k++) {
            int each = (int)(kind[n - 1].dim / kind[k].dim + 1e-9);
            kind[k].count += each;
            c -= each * (int)kind[k].dim;
        }
    }
}

/* Without orthogonality rank j is V^k V.T^(j-k) with binomial shares: n binom(j, k) / 2^j rounded
   down; tensor i of the L that are left over goes to the k at which the cumulated binomial
   distribution passes (i + 1/2) / L: evenly, and always the same. */
static void eqnn__uniform_split(int j, int n, int *of)
{
    double all = ldexp(1, j), binomial = 1, below = 0;
    int whole = n / (int)(j < 30 ? all : 2147483647.0), left;
    left = j < 30 ? n - whole * (int)all : n;
    if (j >= 30) whole = 0;
    for (int k = 0, i = 0; k <= j; k++) {
        of[k] = (int)(whole * binomial);
        below += binomial;
        for (; i < left && (i + 0.5) / left < below / all; i++) of[k]++;
        binomial = binomial * (j - k) / (k + 1);
    }
}

/* text + count tensors: product is that of the groups before g; rank[i] of n more from g on, which
   are named when they are several. */
static const char *eqnn__uniform_text(const char *text, const char *product,
                                      const eqnn_group *const *g, int n, const int *rank, int count,
                                      int named)
{
    int of[EQNN__FACTORS + 1], r = *rank;
    eqnn_ctx *c = g[0]->ctx;
    memset(of, 0, sizeof of);
    if (g[0]->orthogonal) of[r] = count;
    else eqnn__uniform_split(r, count, of);
    for (int k = r; k >= 0; k--) {
        const char *here = product;
        if (!of[k]) continue;
        if (!named) here = eqnn_format(c, "*T(%d,%d)", k, r - k);
        else if (r) here = eqnn_format(c, "%s*T(%d,%d)(%s)", product, k, r - k, g[0]->name);
        text = n > 1 ? eqnn__uniform_text(text, here, g + 1, n - 1, rank + 1, of[k], named)
                     : eqnn_format(c, "%s%s%d%s", text, *text ? "+" : "", of[k], here);
    }
    return text;
}

EQNN_API const eqnn_rep *eqnn_rep_uniform_n(const eqnn_group *const *groups, int n, int channels)
{
    const char *text = "";
    for (int i = 0; groups && i < n; i++)
        if (!groups[i] || groups[i]->ctx->failed) return NULL;
    if (n < 1 || !groups) return NULL;
    eqnn_ctx *c = groups[0]->ctx;
    c->op = "rep_uniform";
    for (int i = 1; i < n; i++)
        if (!eqnn__group_at_home(c, groups[i], "rep_uniform")) return NULL;
    if (channels < 0 || n > EQNN__MIXED)
        return (const eqnn_rep *)eqnn__fail(
            c, "rep_uniform: %d channels of %d groups make no sense", channels, n);
    int kinds = eqnn__kinds(groups, n, channels / 2, NULL);
    eqnn__kind *kind = (eqnn__kind *)eqnn__temp(c, (size_t)kinds, sizeof *kind);
    if (!kind) return NULL;
    eqnn__kinds(groups, n, channels / 2, kind);
    qsort(kind, (size_t)kinds, sizeof *kind, eqnn__kind_compare);
    eqnn__uniform_counts(kind, kinds, channels);
    for (int k = 0; k < kinds && kind[k].count; k++)
        text = eqnn__uniform_text(text, "", groups, n, kind[k].rank, kind[k].count, n > 1);
    return eqnn_rep_make(c, *text ? text : "0", n > 1 ? NULL : groups[0]);
}

EQNN_API const eqnn_rep *eqnn_rep_uniform(const eqnn_group *g, int channels)
{
    return eqnn_rep_uniform_n(&g, 1, channels);
}

/* ------------------------------------------------------------------------------------------------
   4 >>bases
   ---------------------------------------------------------------------------------------------- */

/* The fixed vectors of a monomial. Exactly one of orbit, Q is there (neither when rank is 0). */
typedef struct eqnn__solution {
    int64_t rank;
    const int *orbit;          /* [dim]: number of the orbit of each component: basis vectors are
                                  the orbits' indicators over the roots of their sizes          */
    const int *orbit_size;     /* [rank]                                                          */
    const double *Q;           /* [rank][dim][field], orthonormal rows                            */
    const char *method;        /* "orbits", "weights", ...                                        */
} eqnn__solution;

/* Solves m if it is not solved yet; NULL and an error when that fails. */
static const eqnn__solution *eqnn__solve(const eqnn__monomial *m);

/* A solve works on one part of a monomial: the factors of one group, which stand together. Blocks
   of vectors are [field][n][p]: all real parts, then (field 2) all imaginary ones; p vectors side
   by side, so that inner loops run over vectors. */
typedef struct eqnn__nonzero {
    int i, j;
    double re, im;
} eqnn__nonzero;
typedef struct eqnn__sparse {
    int count;
    const eqnn__nonzero *entry;
} eqnn__sparse;

typedef struct eqnn__part {
    eqnn_ctx *ctx;
    eqnn__space *w, *out; /* memory of the solve; of what it finds               */
    const char *name;     /* of the monomial, for errors                         */
    const eqnn_group *group;
    const eqnn__atom *const *factor;
    int factors, field;
    int lie, generators; /* how many of Lie, of all: Lie ones come first        */
    size_t n;
    eqnn__sparse *matrix; /* [generators][factors]                               */
    double *scale;        /* [generators]: brings the constraint to norm about 1 */
} eqnn__part;

/* What a solve found. */
typedef struct eqnn__found {
    int64_t rank;
    int *orbit; /* [n], or NULL and Q instead                          */
    double *Q;  /* [rank][n][field]                                    */
    const char *method;
} eqnn__found;

static eqnn_basis_opts eqnn__basis_defaults(const eqnn_basis_opts *opts)
{
    eqnn_basis_opts o;
    memset(&o, 0, sizeof o);
    if (opts) o = *opts;
    if (!(o.gap > 0)) o.gap = 1e-8;
    if (!o.memory) o.memory = (size_t)2000000000;
    return o;
}

static eqnn_basis_opts eqnn__basis_opts_of(eqnn_ctx *c)
{
    return eqnn__basis_defaults(c->groups ? &c->groups->opts : NULL);
}

static void eqnn__basis_progress(eqnn_ctx *c, const char *what, double done)
{
    eqnn_basis_opts o = eqnn__basis_opts_of(c);
    if (o.progress) o.progress(o.progress_user, what, done);
}

/* Numbers in [-1, 1), the same at every run: the solver's generic directions (SplitMix64 of Steele,
   Lea and Flood, OOPSLA 2014, doi:10.1145/2660193.2660195). */
static double eqnn__generic(uint64_t *state)
{
    *state += UINT64_C(0x9e3779b97f4a7c15);
    return (double)(eqnn__mix64(*state) >> 11) / 4503599627370496.0 - 1; /* 2^52 */
}

/* --- constraints as operators --- */

/* The entries of a d x d matrix that are not zero; square gets the sum of their squares. */
static int eqnn__sparse_make(eqnn__space *w, int d, int field, const double *a, eqnn__sparse *out,
                             double *square)
{
    size_t entries = (size_t)d * (size_t)d, F = (size_t)field, count = 0;
    *square = 0;
    for (size_t i = 0; i < entries; i++) {
        double size = a[F * i] * a[F * i] + (field == 2 ? a[2 * i + 1] * a[2 * i + 1] : 0);
        *square += size;
        count += size != 0;
    }
    eqnn__nonzero *e = (eqnn__nonzero *)eqnn__space_take(w, count + 1, sizeof *e);
    if (!e) return 0;
    out->entry = e;
    out->count = (int)count;
    for (size_t i = 0; i < entries && count; i++) {
        double re = a[F * i], im = field == 2 ? a[2 * i + 1] : 0;
        if (re * re + im * im == 0) continue;
        e->i = (int)(i / (size_t)d);
        e->j = (int)(i % (size_t)d);
        e->re = re;
        e->im = im;
        e++;
    }
    return 1;
}

/* A permutation's matrix: (h v)[i] = v[perm[i]]. */
static int eqnn__sparse_permutation(eqnn__space *w, int d, const int *perm, eqnn__sparse *out)
{
    eqnn__nonzero *e = (eqnn__nonzero *)eqnn__space_take(w, (size_t)d, sizeof *e);
    if (!e) return 0;
    out->entry = e;
    out->count = d;
    for (int i = 0; i < d; i++) e[i].i = i, e[i].j = perm[i], e[i].re = 1;
    return 1;
}

/* Factor f of generator k; size gets its norm over the root of its dimension. */
static int eqnn__part_matrix(eqnn__part *p, int k, int f, double *size)
{
    const eqnn__atom *a = p->factor[f];
    eqnn__sparse *out = p->matrix + (size_t)k * (size_t)p->factors + (size_t)f;
    size_t entries = (size_t)a->dim * (size_t)a->dim * (size_t)p->field;
    double square = a->dim;
    int lie = k < p->lie, good;
    size_t index = (size_t)(lie ? k : k - p->lie);
    if (!lie && a->permutation)
        good = eqnn__sparse_permutation(p->w, a->dim, a->perm + index * (size_t)a->dim, out);
    else
        good = eqnn__sparse_make(p->w, a->dim, p->field, (lie ? a->A : a->h) + index * entries, out,
                                 &square);
    *size = sqrt(square / a->dim);
    if (good && !(square < 1e300)) {
        eqnn__fail(p->ctx, "basis: %s: %s generator %d of %s is not finite in %s", p->name,
                   lie ? "Lie" : "discrete", (int)index, p->group->name, a->name);
        good = 0;
    }
    return good;
}

/* All matrices, and the scales: the answer must not depend on the units of the generators. */
static int eqnn__part_begin(eqnn__part *p)
{
    size_t count = (size_t)p->generators * (size_t)p->factors;
    p->matrix = (eqnn__sparse *)eqnn__space_take(p->w, count + 1, sizeof *p->matrix);
    p->scale = eqnn__space_doubles(p->w, (size_t)p->generators + 1, 1);
    if (!p->matrix || !p->scale) return 0;
    for (int k = 0; k < p->generators; k++) {
        double product = 1, most = 0, size = 0;
        for (int f = 0; f < p->factors; f++) {
            eqnn__sparse *at = p->matrix + (size_t)k * (size_t)p->factors + (size_t)f;
            if (f && p->factor[f] == p->factor[f - 1]) at[0] = at[-1];
            else if (!eqnn__part_matrix(p, k, f, &size)) return 0;
            product *= size > 1 ? size : 1;
            if (size > most) most = size;
        }
        p->scale[k] = k >= p->lie ? 1 / product : most > 0 ? 1 / most : 0;
    }
    return 1;
}

/* y += scale A x on one axis of length d, outer before and inner numbers behind it; of two planes
   (re, im) when field is 2. adjoint: A^H. */
static void eqnn__site(const eqnn__sparse *m, int adjoint, double scale, size_t outer, size_t d,
                       size_t inner, int field, const double *x, double *y)
{
    size_t plane = outer * d * inner;
    for (size_t o = 0; o < outer; o++)
        for (int k = 0; k < m->count; k++) {
            const eqnn__nonzero *e = &m->entry[k];
            size_t to = (size_t)(adjoint ? e->j : e->i), from = (size_t)(adjoint ? e->i : e->j);
            const double *u = x + (o * d + from) * inner;
            double *v = y + (o * d + to) * inner;
            double re = scale * e->re, im = scale * (adjoint ? -e->im : e->im);
            if (re != 0)
                for (size_t i = 0; i < inner; i++) v[i] += re * u[i];
            if (field == 1) continue;
            if (re != 0)
                for (size_t i = 0; i < inner; i++) v[plane + i] += re * u[plane + i];
            if (im == 0) continue;
            for (size_t i = 0; i < inner; i++) {
                v[i] -= im * u[plane + i];
                v[plane + i] += im * u[i];
            }
        }
}

/* z = (A_first x ... x A_last) x: one axis after the other. t: room for one block. */
static void eqnn__kronecker(const eqnn__sparse *m, const eqnn__atom *const *factor, int factors,
                            int adjoint, int field, size_t n, size_t p, const double *x, double *t,
                            double *z)
{
    size_t outer = 1, all = n * p * (size_t)field;
    memcpy(z, x, all * sizeof *z);
    for (int f = 0; f < factors; f++) {
        size_t d = (size_t)factor[f]->dim;
        memcpy(t, z, all * sizeof *t);
        memset(z, 0, all * sizeof *z);
        eqnn__site(&m[f], adjoint, 1, outer, d, n / outer / d * p, field, t, z);
        outer *= d;
    }
}

/* y = C_k x or C_k^H x: scale times d rho(A_k) x, a sum over factors, or times rho(h_k) x - x. */
static void eqnn__constraint(const eqnn__part *p, int k, int adjoint, size_t vectors,
                             const double *x, double *y, double *t)
{
    const eqnn__sparse *m = p->matrix + (size_t)k * (size_t)p->factors;
    size_t all = p->n * vectors * (size_t)p->field, outer = 1;
    if (k >= p->lie) {
        eqnn__kronecker(m, p->factor, p->factors, adjoint, p->field, p->n, vectors, x, t, y);
        for (size_t i = 0; i < all; i++) y[i] = p->scale[k] * (y[i] - x[i]);
        return;
    }
    memset(y, 0, all * sizeof *y);
    for (int f = 0; f < p->factors; f++) {
        size_t d = (size_t)p->factor[f]->dim;
        eqnn__site(&m[f], adjoint, p->scale[k], outer, d, p->n / outer / d * vectors, p->field, x,
                   y);
        outer *= d;
    }
}

/* y = G x with G = sum over k of C_k^H C_k, whose null space is wanted. t: room for 3 blocks. */
static void eqnn__gram(const eqnn__part *p, size_t vectors, const double *x, double *y, double *t)
{
    size_t all = p->n * vectors * (size_t)p->field;
    memset(y, 0, all * sizeof *y);
    for (int k = 0; k < p->generators; k++) {
        eqnn__constraint(p, k, 0, vectors, x, t, t + all);
        eqnn__constraint(p, k, 1, vectors, t, t + all, t + 2 * all);
        for (size_t i = 0; i < all; i++) y[i] += t[all + i];
    }
}

/* The last word on every basis: x = sum of xi_q Q_q with random xi must be left alone by every
   generator, and Q x must give xi back. One wrong row would show in x; chance alone does not hide
   it (R. Freivalds 1977). That costs two passes over Q instead of one for each generator. A
   discrete generator is judged as it is: scaled, h x - x would be small for any x when h is
   large. */
static int eqnn__basis_holds(eqnn__part *p, const eqnn__found *found, double tolerance)
{
    const eqnn__scrap *mark = p->w->top;
    size_t field = (size_t)p->field, row = p->n * field, rank = (size_t)found->rank;
    double *xi = eqnn__space_doubles(p->w, rank + 1, 1), *x = eqnn__space_doubles(p->w, row, 4);
    double worst = 0, size = 0, *sum = x + row;
    uint64_t seed = 77;
    if (!xi || !x) return -1;
    for (size_t q = 0; q < rank; q++) {
        xi[q] = eqnn__generic(&seed);
        for (size_t i = 0; i < row; i++) sum[i] += xi[q] * found->Q[q * row + i];
    }
    for (size_t i = 0; i < row; i++)
        size += sum[i] * sum[i], x[(i % field) * p->n + i / field] = sum[i];
    for (size_t q = 0; q < rank; q++) {
        double dot = -xi[q];
        for (size_t i = 0; i < row; i++) dot += found->Q[q * row + i] * sum[i];
        if (!(fabs(dot) <= worst)) worst = fabs(dot);
    }
    for (int k = 0; k < p->generators; k++) {
        eqnn__constraint(p, k, 0, 1, x, x + row, x + 2 * row);
        double unit = k < p->lie ? 1 : 1 / p->scale[k];
        for (size_t i = 0; i < row; i++)
            if (!(unit * fabs(x[row + i]) <= worst)) worst = unit * fabs(x[row + i]);
    }
    eqnn__space_back(p->w, mark);
    return rank == 0 || worst <= tolerance * sqrt(size);
}

/* --- permutation groups: orbits --- */

/* Where the generators take the multi-indices t of some neighbouring factors, times unit: to[t][k];
   and which of them move t at all: moving[start[t]] ... moving[start[t + 1] - 1]. */
typedef struct eqnn__moves {
    int size, *to, *start, *moving;
} eqnn__moves;

static int eqnn__moves_make(const eqnn__part *p, int from, int end, int unit, eqnn__moves *m)
{
    size_t size = 1, G = (size_t)p->generators, count = 0;
    for (int f = from; f < end; f++) size *= (size_t)p->factor[f]->dim;
    m->size = (int)size;
    m->to = eqnn__space_ints(p->w, size * G + 1);
    m->moving = eqnn__space_ints(p->w, size * G + 1);
    m->start = eqnn__space_ints(p->w, size + 1);
    if (!m->to || !m->moving || !m->start) return 0;
    for (size_t t = 0; t < size; t++)
        for (size_t k = 0, stride = size, image = 0; k < G; k++, stride = size, image = 0) {
            for (int f = from; f < end; f++) {
                size_t d = (size_t)p->factor[f]->dim;
                stride /= d;
                image += stride * (size_t)p->factor[f]->perm[k * d + t / stride % d];
            }
            m->to[t * G + k] = (int)image * unit;
            if (image != t) m->moving[count++] = (int)k;
            m->start[t + 1] = (int)count;
        }
    return 1;
}

/* Everything that the generators reach from component `first` belongs to its orbit: how many these
   are. The image of a component t = a low + b is the sum of two table entries, one for each half of
   its multi-index; those generators are tried that move a or b. (The powers of a permutation
   contain its inverse, so following the generators forwards is enough.) */
static int eqnn__orbit_flood(int generators, const eqnn__moves *head, const eqnn__moves *tail,
                             int first, int number, int *orbit, int *stack)
{
    int left = 1, reached = 0;
    stack[0] = first;
    orbit[first] = number;
    for (; left > 0; reached++) {
        unsigned t = (unsigned)stack[--left], low = (unsigned)tail->size, a = t / low,
                 b = t - a * low;
        const int *x = head->to + (size_t)a * (size_t)generators;
        const int *y = tail->to + (size_t)b * (size_t)generators;
        int i = head->start[a], n = head->start[a + 1] - i;
        int j = tail->start[b], m = tail->start[b + 1] - j, few = n + m < generators;
        for (int s = 0; s < (few ? n + m : generators); s++) {
            int k = !few    ? s
                    : s < n ? head->moving[i + s]
                            : tail->moving[j + s - n],
                u = x[k] + y[k];
            if (orbit[u] >= 0) continue;
            orbit[u] = number;
            stack[left++] = u;
        }
    }
    return reached;
}

/* When all matrices are permutations, a vector is fixed if and only if it is constant on every
   orbit of components: no linear algebra. */
static int eqnn__orbits(eqnn__part *p, eqnn__found *found)
{
    int split = 0, orbits = 0, low = 1, n = (int)p->n, reached = 0, told = 0;
    double high = 1;
    eqnn__moves head, tail;
    for (; split < p->factors && high * high < n; split++) high *= p->factor[split]->dim;
    for (int f = split; f < p->factors; f++) low *= p->factor[f]->dim;
    int *orbit = eqnn__space_ints(p->out, p->n), *stack = eqnn__space_ints(p->w, p->n);
    if (!orbit || !stack || !eqnn__moves_make(p, 0, split, low, &head) ||
        !eqnn__moves_make(p, split, p->factors, 1, &tail))
        return -1;
    for (int t = 0; t < n; t++) orbit[t] = -1;
    for (int t = 0; t < n; t++) {
        if (orbit[t] >= 0) continue;
        reached += eqnn__orbit_flood(p->generators, &head, &tail, t, orbits++, orbit, stack);
        if (reached - told < 65536) continue;
        told = reached;
        eqnn__basis_progress(p->ctx, p->name, (double)reached / n);
    }
    found->rank = orbits;
    found->orbit = orbit;
    found->method = "orbits";
    return 1;
}

/* --- Lie groups: highest weights, meeting in the middle ---

   Let the (complexified) Lie algebra be closed under A -> A^H, as so(n), sp(n), sl(n), gl(n), u(n),
   su(n), so(p, q) and their products are in their usual form. A random Hermitian element H = x +
   x^H then is as good as a whole maximal torus: its eigenvalues differ wherever those of some
   element of the torus do, and all elements that commute with it are the torus. An eigenvalue of H
   on a product of atoms is a sum of the atoms' eigenvalues and is called a weight; the parts of
   any other element x between eigenvectors whose eigenvalues differ by alpha add up to an element
   E_alpha of the algebra, which raises weights by alpha. (Humphreys, Introduction to Lie Algebras
   and Representation Theory, 1972, sections 8, 20 and 21.)

   Every irreducible piece contains one vector, its highest, that all E_alpha annihilate; its weight
   says which irreducible representation it is; the lowering operators E_alpha^H make a basis
   of the piece from it. Made by the same words from the highest vectors, the bases u_1a, u_2a, ...
   of all copies transform by the same matrices, and those are unitary for the compact form of the
   algebra.

   A product is cut into a left half L and a right half R of about equal size. A fixed vector of L
   x R is a map from the dual R* to L that commutes with the algebra, so by Schur's lemma a
   combination of

       T_ij = sum over a of  u_ia x conj(w_ja),    u_ia in L,  w_ja in R*, copies of the same piece,

   which are orthogonal and all of length sqrt(dimension of the piece). So only the halves are
   decomposed: for 3^7 = 2187 components of SO(3) these have 27 and 81.

   Discrete generators and complex conjugation permute the kinds of pieces; among the coefficients
   c_ij that they connect (few, once copies are chosen that conjugation does not mix), small systems
   of equations pick the real vectors that all of them leave alone. */

#define EQNN__SAME 1e-8      /* weights that differ by less are equal    */
#define EQNN__DIFFERENT 1e-6 /* and by more, different; between: refused */

typedef struct eqnn__algebra {
    eqnn__space *w;
    int atoms, dim, roots; /* different atoms; basis of the algebra; simple roots     */
    const eqnn__atom *atom[64];
    int kind[64];           /* which atom each factor is                               */
    size_t at[65], eat[65]; /* where an atom's matrix and eigenvalues begin            */
    eqnn__z *basis;         /* [dim][at[atoms]]: one matrix for each atom, orthonormal */
    double *e;              /* eigenvalues of H                                        */
    eqnn__z *X;             /* its eigenvectors, columns                               */
    eqnn__sparse *turn;     /* [atoms]: X as entries                                   */
    double *alpha;          /* [roots]                                                 */
    eqnn__sparse *raise;    /* [roots][atoms]: E_alpha between eigenvectors of H       */
    uint64_t seed;
} eqnn__algebra;

/* v less its components along the basis; returns what is left of its length, relative to before. */
static double eqnn__algebra_rest(const eqnn__algebra *l, eqnn__z *v)
{
    size_t n = l->at[l->atoms];
    double before = eqnn__z_norm(n, v);
    size_t at[16], few = 0; /* generators have few entries, which most of the others lack */
    for (size_t i = 0; i < n && few <= 16; i++)
        if (v[i].re != 0 || v[i].im != 0) {
            if (few < 16) at[few] = i;
            few++;
        }
    int sparse = few <= 16; /* until v gets entries of another */
    for (int pass = 0; pass < 2; pass++)
        for (int k = 0; k < l->dim; k++) {
            const eqnn__z *b = l->basis + (size_t)k * n;
            size_t i = 0;
            while (sparse && i < few && b[at[i]].re == 0 && b[at[i]].im == 0) i++;
            if (sparse && i == few) continue; /* orthogonal */
            sparse = 0;
            eqnn__z_axpy(n, eqnn__z_scale(-1, eqnn__z_dot(n, b, v)), b, v);
        }
    return before > 0 ? eqnn__z_norm(n, v) / before : 0;
}

/* A random element of the algebra. */
static void eqnn__algebra_random(eqnn__algebra *l, eqnn__z *v)
{
    size_t n = l->at[l->atoms];
    for (size_t i = 0; i < n; i++) v[i] = eqnn__z_of(0, 0);
    for (int k = 0; k < l->dim; k++) {
        double re = eqnn__generic(&l->seed), im = eqnn__generic(&l->seed);
        eqnn__z_axpy(n, eqnn__z_of(re, im), l->basis + (size_t)k * n, v);
    }
}

/* The conjugate transpose of an element, atom by atom. */
static void eqnn__algebra_adjoint(const eqnn__algebra *l, const eqnn__z *v, eqnn__z *out)
{
    for (int a = 0; a < l->atoms; a++) {
        size_t d = (size_t)l->atom[a]->dim;
        for (size_t i = 0; i < d; i++)
            for (size_t j = 0; j < d; j++)
                out[l->at[a] + i * d + j] = eqnn__z_conj(v[l->at[a] + j * d + i]);
    }
}

/* out = x y - y x, atom by atom; t: room for one element. */
static void eqnn__algebra_bracket(const eqnn__algebra *l, const eqnn__z *x, const eqnn__z *y,
                                  eqnn__z *out, eqnn__z *t)
{
    for (int a = 0; a < l->atoms; a++) {
        int d = l->atom[a]->dim;
        size_t at = l->at[a];
        eqnn__z_product(d, x + at, y + at, out + at);
        eqnn__z_product(d, y + at, x + at, t + at);
    }
    for (size_t i = 0; i < l->at[l->atoms]; i++) out[i] = eqnn__z_sub(out[i], t[i]);
}

/* v, when it is new, is a further basis element. */
static int eqnn__algebra_add(eqnn__algebra *l, eqnn__z *v)
{
    size_t n = l->at[l->atoms];
    if (!(eqnn__algebra_rest(l, v) > 1e-7)) return 0;
    double norm = eqnn__z_norm(n, v);
    for (size_t i = 0; i < n; i++) l->basis[(size_t)l->dim * n + i] = eqnn__z_scale(1 / norm, v[i]);
    l->dim++;
    return 1;
}

/* The algebra that the generators make by brackets. That it is closed is seen from one bracket of
   two random elements: what sticks out depends on both linearly, so it is zero by chance only. The
   basis has room for all matrices. 0: not closed under conjugate transposition. -1: no memory. */
static int eqnn__algebra_close(eqnn__algebra *l, const eqnn__part *p)
{
    size_t n = l->at[l->atoms];
    size_t most = n < 2000 ? n : 2000;
    eqnn__z *v = (eqnn__z *)eqnn__space_take(l->w, 4 * n, sizeof *v);
    l->basis = (eqnn__z *)eqnn__space_take(l->w, most * n, sizeof *v);
    if (!v || !l->basis) return -1;
    for (int k = 0; k < p->lie && (size_t)l->dim < most; k++) {
        for (int a = 0; a < l->atoms; a++) {
            size_t entries = l->at[a + 1] - l->at[a];
            eqnn__z_from(entries, p->field, l->atom[a]->A + (size_t)k * entries * (size_t)p->field,
                         v + l->at[a]);
        }
        double norm = eqnn__z_norm(n, v);
        for (size_t i = 0; i < n; i++) v[i] = eqnn__z_scale(norm > 0 ? 1 / norm : 0, v[i]);
        eqnn__algebra_add(l, v);
    }
    for (int closed = 0; l->dim > 1 && closed < 2;) {
        if ((size_t)l->dim == most) return n == most ? 1 : 0;
        eqnn__algebra_random(l, v);
        eqnn__algebra_random(l, v + n);
        eqnn__algebra_bracket(l, v, v + n, v + 2 * n, v + 3 * n);
        double scale = eqnn__z_norm(n, v) * eqnn__z_norm(n, v + n);
        closed = eqnn__z_norm(n, v + 2 * n) <= 1e-7 * scale || !eqnn__algebra_add(l, v + 2 * n)
                     ? closed + 1
                     : 0;
    }
    eqnn__algebra_random(l, v);
    eqnn__algebra_adjoint(l, v, v + n);
    return eqnn__algebra_rest(l, v + n) < 1e-7;
}

/* H = x + x^H, its eigenvalues and eigenvectors on every atom, and a random element seen from
   there. */
static int eqnn__algebra_torus(eqnn__algebra *l, eqnn__z *y)
{
    size_t n = l->at[l->atoms];
    eqnn__z *x = (eqnn__z *)eqnn__space_take(l->w, 2 * n, sizeof *x);
    if (!x) return -1;
    eqnn__algebra_random(l, x);
    eqnn__algebra_adjoint(l, x, x + n);
    double norm = eqnn__z_norm(n, x);
    for (size_t i = 0; i < n; i++)
        x[i] = eqnn__z_scale(norm > 0 ? 1 / norm : 0, eqnn__z_add(x[i], x[n + i]));
    eqnn__algebra_random(l, y);
    norm = eqnn__z_norm(n, y);
    for (size_t i = 0; i < n; i++) y[i] = eqnn__z_scale(norm > 0 ? 1 / norm : 0, y[i]);
    for (int a = 0; a < l->atoms; a++) {
        int d = l->atom[a]->dim;
        size_t D = (size_t)d;
        eqnn__z *X = l->X + l->at[a], *t = x + n + l->at[a], *u = x + l->at[a];
        if (!eqnn__z_eigen(d, u, l->e + l->eat[a], X)) return 0;
        eqnn__z_product(d, y + l->at[a], X, t);
        for (size_t i = 0; i < D; i++)
            for (size_t j = 0; j < D; j++) u[i * D + j] = eqnn__z_conj(X[j * D + i]);
        eqnn__z_product(d, u, t, y + l->at[a]);
        if (!eqnn__sparse_make(l->w, d, 2, &X->re, &l->turn[a], &norm)) return -1;
    }
    return 1;
}

static int eqnn__rising(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Sorted values that are equal become one; 0 when some are neither equal nor clearly different. */
static int eqnn__distinct(double *x, int n, int *count)
{
    int k = 0;
    qsort(x, (size_t)n, sizeof *x, eqnn__rising);
    for (int i = 0; i < n; i++) {
        double gap = i ? x[i] - x[i - 1] : 1;
        if (gap > EQNN__SAME && gap < EQNN__DIFFERENT) return 0;
        if (gap >= EQNN__DIFFERENT) x[k++] = x[i];
    }
    *count = k;
    return 1;
}

/* Place of a weight in a rising list, or -1. */
static int eqnn__weight_place(const double *x, int n, double weight)
{
    int low = 0, high = n;
    while (low < high) {
        int mid = low + (high - low) / 2;
        if (x[mid] < weight - EQNN__DIFFERENT / 2) low = mid + 1;
        else high = mid;
    }
    return low < n && fabs(x[low] - weight) < EQNN__DIFFERENT / 2 ? low : -1;
}

/* E_alpha of one atom: the entries of y between eigenvalues that differ by alpha. */
static int eqnn__algebra_raise(eqnn__algebra *l, const eqnn__z *y, int a, double alpha,
                               eqnn__sparse *out)
{
    int d = l->atom[a]->dim, count = 0;
    const double *e = l->e + l->eat[a];
    eqnn__nonzero *entry = NULL;
    for (int pass = 0; pass < 2; pass++) {
        if (pass) entry = (eqnn__nonzero *)eqnn__space_take(l->w, (size_t)count + 1, sizeof *entry);
        if (pass && !entry) return 0;
        count = 0;
        for (int i = 0; i < d; i++)
            for (int j = 0; j < d; j++) {
                eqnn__z v = y[l->at[a] + (size_t)i * (size_t)d + (size_t)j];
                if (fabs(e[i] - e[j] - alpha) > EQNN__DIFFERENT / 2 || eqnn__z_square(v) < 1e-18)
                    continue;
                if (entry) {
                    entry[count].i = i, entry[count].j = j;
                    entry[count].re = v.re, entry[count].im = v.im;
                }
                count++;
            }
    }
    out->count = count;
    out->entry = entry;
    return 1;
}

/* The positive roots, of which those stay that are no sums of two others: these simple ones raise
   to every weight there is. */
static int eqnn__algebra_roots(eqnn__algebra *l, const eqnn__z *y)
{
    size_t n = l->at[l->atoms];
    int count = 0, simple = 0;
    double *alpha = eqnn__space_doubles(l->w, n + 1, 2);
    if (!alpha) return -1;
    for (int a = 0; a < l->atoms; a++) {
        size_t d = (size_t)l->atom[a]->dim;
        const double *e = l->e + l->eat[a];
        for (size_t i = 0; i < d * d; i++) {
            double gap = e[i / d] - e[i % d];
            if (eqnn__z_square(y[l->at[a] + i]) < 1e-18 || gap < EQNN__SAME) continue;
            if (gap < EQNN__DIFFERENT) return 0;
            alpha[count++] = gap;
        }
    }
    if (!eqnn__distinct(alpha, count, &count)) return 0;
    l->alpha = alpha + n + 1;
    for (int i = 0; i < count; i++) {
        int sum = 0;
        for (int j = 0; j < i && !sum; j++)
            sum = eqnn__weight_place(alpha, i, alpha[i] - alpha[j]) >= 0;
        if (!sum) l->alpha[simple++] = alpha[i];
    }
    l->roots = simple;
    l->raise = (eqnn__sparse *)eqnn__space_take(l->w, (size_t)simple * (size_t)l->atoms + 1,
                                                sizeof *l->raise);
    if (!l->raise) return -1;
    for (int r = 0; r < simple; r++)
        for (int a = 0; a < l->atoms; a++)
            if (!eqnn__algebra_raise(l, y, a, l->alpha[r], &l->raise[r * l->atoms + a])) return -1;
    return 1;
}

/* The different atoms of the factors and where their matrices stand. 0: too large for this way. */
static int eqnn__algebra_atoms(eqnn__algebra *l, const eqnn__part *p)
{
    if (p->factors > 64) return 0;
    for (int f = 0; f < p->factors; f++) {
        int a = 0;
        while (a < l->atoms && l->atom[a] != p->factor[f]) a++;
        l->kind[f] = a;
        if (a < l->atoms) continue;
        size_t d = (size_t)p->factor[f]->dim;
        if (d > 200) return 0;
        l->atom[l->atoms++] = p->factor[f];
        l->at[a + 1] = l->at[a] + d * d;
        l->eat[a + 1] = l->eat[a] + d;
    }
    return 1;
}

static int eqnn__algebra_make(eqnn__algebra *l, const eqnn__part *p, uint64_t seed)
{
    memset(l, 0, sizeof *l);
    l->w = p->w;
    l->seed = seed;
    if (!eqnn__algebra_atoms(l, p)) return 0;
    size_t n = l->at[l->atoms];
    eqnn__z *y = (eqnn__z *)eqnn__space_take(p->w, n, sizeof *y);
    l->X = (eqnn__z *)eqnn__space_take(p->w, n, sizeof *y);
    l->e = eqnn__space_doubles(p->w, l->eat[l->atoms], 1);
    l->turn = (eqnn__sparse *)eqnn__space_take(p->w, (size_t)l->atoms, sizeof *l->turn);
    if (!y || !l->X || !l->e || !l->turn) return -1;
    int good = eqnn__algebra_close(l, p);
    if (good > 0) good = eqnn__algebra_torus(l, y);
    return good > 0 ? eqnn__algebra_roots(l, y) : good;
}

/* One half of the product, in the eigenvectors of H: its components sorted by weight. The dual of a
   half has the matrices -A^T and minus the weights. */
typedef struct eqnn__wing {
    const eqnn__algebra *l;
    int first, factors, dual; /* factors first, ... of the part           */
    size_t n;
    int groups;
    double *weight;      /* [groups], rising                         */
    int *start, *member; /* [groups + 1] into member[n]: components  */
    int *group, *place;  /* [n]: a component's group, place in it    */
} eqnn__wing;

static size_t eqnn__wing_dim(const eqnn__wing *h, int f)
{
    return (size_t)h->l->atom[h->l->kind[h->first + f]]->dim;
}

/* Weight of every component: sums of one eigenvalue per factor. */
static void eqnn__wing_weights(const eqnn__wing *h, double *weight)
{
    size_t size = 1;
    weight[0] = 0;
    for (int f = 0; f < h->factors; f++) {
        size_t d = eqnn__wing_dim(h, f);
        const double *e = h->l->e + h->l->eat[h->l->kind[h->first + f]];
        for (size_t t = size; t-- > 0;)
            for (size_t i = d; i-- > 0;) weight[t * d + i] = weight[t] + (h->dual ? -e[i] : e[i]);
        size *= d;
    }
}

static int eqnn__wing_make(eqnn__wing *h, const eqnn__algebra *l, int first, int factors, int dual)
{
    memset(h, 0, sizeof *h);
    h->l = l;
    h->first = first;
    h->factors = factors;
    h->dual = dual;
    h->n = 1;
    for (int f = 0; f < factors; f++) h->n *= eqnn__wing_dim(h, f);
    double *weight = eqnn__space_doubles(l->w, h->n, 2);
    int *ints = eqnn__space_ints(l->w, 4 * h->n + 2);
    if (!weight || !ints) return -1;
    h->weight = weight + h->n;
    h->member = ints;
    h->group = ints + h->n;
    h->place = ints + 2 * h->n;
    h->start = ints + 3 * h->n;
    eqnn__wing_weights(h, weight);
    memcpy(h->weight, weight, h->n * sizeof *weight);
    if (!eqnn__distinct(h->weight, (int)h->n, &h->groups)) return 0;
    for (size_t t = 0; t < h->n; t++) {
        int g = eqnn__weight_place(h->weight, h->groups, weight[t]);
        if (g < 0) return 0;
        h->group[t] = g;
        h->place[t] = h->start[g + 1]++;
    }
    for (int g = 0; g < h->groups; g++) h->start[g + 1] += h->start[g];
    for (size_t t = 0; t < h->n; t++) h->member[h->start[h->group[t]] + h->place[t]] = (int)t;
    return 1;
}

static int eqnn__wing_size(const eqnn__wing *h, int g) { return h->start[g + 1] - h->start[g]; }

/* y += E x (or E^H x): m vectors side by side that live in weight group `from`, into group `to`. */
static void eqnn__wing_step(const eqnn__wing *h, int root, int lower, int from, size_t m,
                            const eqnn__z *x, int to, eqnn__z *y)
{
    size_t stride = h->n;
    for (int f = 0; f < h->factors; f++) {
        size_t d = eqnn__wing_dim(h, f);
        const eqnn__sparse *E = &h->l->raise[root * h->l->atoms + h->l->kind[h->first + f]];
        stride /= d;
        for (int s = h->start[from]; s < h->start[from + 1]; s++) {
            size_t t = (size_t)h->member[s];
            int digit = (int)(t / stride % d);
            for (int k = 0; k < E->count; k++) {
                const eqnn__nonzero *e = &E->entry[k];
                int swap = lower != h->dual, column = swap ? e->i : e->j, row = swap ? e->j : e->i;
                if (column != digit) continue;
                size_t u = t - (size_t)column * stride + (size_t)row * stride;
                eqnn__z v = eqnn__z_of(e->re, lower ? -e->im : e->im);
                if (h->group[u] != to) continue;
                if (h->dual) v = eqnn__z_scale(-1, v);
                eqnn__z_axpy(m, v, x + (size_t)(s - h->start[from]) * m,
                             y + (size_t)h->place[u] * m);
            }
        }
    }
}

/* Highest vectors of weight group g: orthonormal, annihilated by all raising operators. out:
   vectors side by side [size][m]. Where a weight one higher has more room there are none: raising
   from a weight that a reflection can raise loses nothing. Returns m; -1: no memory. */
static int eqnn__wing_highest(const eqnn__wing *h, int g, eqnn__z **out)
{
    const eqnn__algebra *l = h->l;
    int n = eqnn__wing_size(h, g), rows = 0, at = 0;
    size_t d = (size_t)n;
    *out = NULL;
    for (int r = 0; r < l->roots; r++) {
        int to = eqnn__weight_place(h->weight, h->groups, h->weight[g] + l->alpha[r]);
        if (to >= 0 && eqnn__wing_size(h, to) > n) return 0;
        if (to >= 0) rows += eqnn__wing_size(h, to);
    }
    const eqnn__scrap *before = l->w->top;
    eqnn__z *top = (eqnn__z *)eqnn__space_take(l->w, d * d, sizeof *top);
    const eqnn__scrap *mark = l->w->top;
    eqnn__z *A = (eqnn__z *)eqnn__space_take(l->w, (size_t)rows * d + 1, sizeof *A);
    eqnn__z *one = (eqnn__z *)eqnn__space_take(l->w, d * d, sizeof *A);
    if (!top || !A || !one) return -1;
    for (size_t i = 0; i < d; i++) one[i * (d + 1)] = eqnn__z_of(1, 0);
    for (int r = 0; r < l->roots; r++) {
        int to = eqnn__weight_place(h->weight, h->groups, h->weight[g] + l->alpha[r]);
        if (to < 0) continue;
        eqnn__wing_step(h, r, 0, g, d, one, to, A + (size_t)at * d);
        at += eqnn__wing_size(h, to);
    }
    int m = eqnn__z_null(l->w, rows, n, A, 1e-7, one);
    for (int q = 0; q < m; q++)
        for (size_t i = 0; i < d; i++) top[i * (size_t)m + (size_t)q] = one[(size_t)q * d + i];
    eqnn__space_back(l->w, m > 0 ? mark : before);
    *out = m > 0 ? top : NULL;
    return m;
}

/* An irreducible piece: copies in each half, and their bases in the original coordinates. */
typedef struct eqnn__piece {
    double weight;
    int dim, m[2], group[2];
    eqnn__z *top[2];          /* highest vectors [group size][m]                         */
    double *u[2], *turned[2]; /* [2][n][m dim], column i dim + a: u_ia, conj(w_ja); and the same
                                    as [2][m dim][n]                                        */
} eqnn__piece;

/* One basis vector of a piece, of all copies in both halves. */
typedef struct eqnn__word {
    double weight;
    int group[2];
    eqnn__z *v[2];
} eqnn__word;

/* x = E^H of a node's vectors, in both halves; group -1 where there is no such weight. */
static int eqnn__piece_lower(eqnn__wing h[2], const eqnn__piece *k, const eqnn__word *from,
                             int root, eqnn__word *x)
{
    x->weight = from->weight - h[0].l->alpha[root];
    for (int s = 0; s < 2; s++) {
        x->v[s] = NULL;
        x->group[s] = k->m[s] ? eqnn__weight_place(h[s].weight, h[s].groups, x->weight) : -1;
        if (x->group[s] < 0) continue;
        size_t m = (size_t)k->m[s], size = (size_t)eqnn__wing_size(&h[s], x->group[s]);
        x->v[s] = (eqnn__z *)eqnn__space_take(h[0].l->w, size * m, sizeof(eqnn__z));
        if (!x->v[s]) return 0;
        eqnn__wing_step(&h[s], root, 1, from->group[s], m, from->v[s], x->group[s], x->v[s]);
    }
    return 1;
}

/* x -= c y in both halves, with c from the first copy in half `lead`. */
static void eqnn__piece_clean(eqnn__wing h[2], const eqnn__piece *k, int lead, const eqnn__word *y,
                              eqnn__word *x)
{
    eqnn__z c = eqnn__z_of(0, 0);
    size_t m = (size_t)k->m[lead], size = (size_t)eqnn__wing_size(&h[lead], x->group[lead]) * m;
    for (size_t i = 0; i < size; i += m)
        c = eqnn__z_add(c, eqnn__z_mul(eqnn__z_conj(y->v[lead][i]), x->v[lead][i]));
    for (int s = 0; s < 2; s++)
        if (x->v[s])
            eqnn__z_axpy((size_t)eqnn__wing_size(&h[s], x->group[s]) * (size_t)k->m[s],
                         eqnn__z_scale(-1, c), y->v[s], x->v[s]);
}

/* x is scaled by the length of its first copy; 0: it is nothing new. */
static int eqnn__piece_unit(eqnn__wing h[2], const eqnn__piece *k, int lead, eqnn__word *x)
{
    size_t m = (size_t)k->m[lead], size = (size_t)eqnn__wing_size(&h[lead], x->group[lead]) * m;
    double norm = 0;
    for (size_t i = 0; i < size; i += m) norm += eqnn__z_square(x->v[lead][i]);
    norm = sqrt(norm);
    if (!(norm > 1e-6)) return 0;
    for (int s = 0; s < 2; s++) {
        size = x->v[s] ? (size_t)eqnn__wing_size(&h[s], x->group[s]) * (size_t)k->m[s] : 0;
        for (size_t i = 0; i < size; i++) x->v[s][i] = eqnn__z_scale(1 / norm, x->v[s][i]);
    }
    return 1;
}

/* The basis of a piece: lowering operators on what is there already, made orthonormal, until
   nothing new comes. What is done to the first copy is done to all. Returns the dimension; 0: not
   unitary; -1: no memory. */
static int eqnn__piece_basis(eqnn__wing h[2], const eqnn__piece *k, eqnn__word *node, int most)
{
    int lead = k->m[0] ? 0 : 1, count = 1;
    node[0].weight = k->weight;
    for (int s = 0; s < 2; s++) {
        node[0].group[s] = k->group[s];
        node[0].v[s] = k->m[s] ? k->top[s] : NULL;
    }
    for (int a = 0; a < count; a++)
        for (int root = 0; root < h[0].l->roots; root++) {
            eqnn__word x;
            const eqnn__scrap *mark = h[0].l->w->top;
            if (!eqnn__piece_lower(h, k, &node[a], root, &x)) return -1;
            int good = x.group[lead] >= 0;
            for (int pass = 0; good && pass < 2; pass++)
                for (int b = count; b-- > 0;)
                    if (node[b].group[lead] == x.group[lead])
                        eqnn__piece_clean(h, k, lead, &node[b], &x);
            if (!good || !eqnn__piece_unit(h, k, lead, &x)) {
                eqnn__space_back(h[0].l->w, mark);
                continue;
            }
            for (int s = 0; s < 2; s++)
                if (k->m[s] && !x.v[s]) return 0;
            if (count == most) return 0;
            node[count++] = x;
        }
    return count;
}

/* Columns u_ia of a half, back in the original coordinates: axis by axis by eigenvectors of H. */
static int eqnn__piece_expand(const eqnn__wing *h, int side, eqnn__piece *k, const eqnn__word *node)
{
    const eqnn__algebra *l = h->l;
    size_t m = (size_t)k->m[side], dim = (size_t)k->dim, K = m * dim, all = 2 * h->n * K, outer = 1;
    double *x = eqnn__space_doubles(l->w, all, 2), *y = x + all;
    if (!x) return 0;
    for (size_t a = 0; a < dim; a++) {
        int g = node[a].group[side];
        for (size_t s = 0; s < (size_t)eqnn__wing_size(h, g); s++)
            for (size_t i = 0; i < m; i++) {
                size_t at = (size_t)h->member[(size_t)h->start[g] + s] * K + i * dim + a;
                eqnn__z v = node[a].v[side][s * m + i];
                x[at] = v.re;
                x[h->n * K + at] = h->dual ? -v.im : v.im;
            }
    }
    for (int f = 0; f < h->factors; f++) {
        size_t d = eqnn__wing_dim(h, f);
        memset(y, 0, all * sizeof *y);
        eqnn__site(&l->turn[l->kind[h->first + f]], 0, 1, outer, d, h->n / outer / d * K, 2, x, y);
        outer *= d;
        double *swap = x;
        x = y, y = swap;
    }
    k->u[side] = x;
    k->turned[side] = y;
    for (int part = 0; part < 2; part++)
        for (size_t t = 0; t < h->n; t++)
            for (size_t c = 0; c < K; c++)
                y[((size_t)part * K + c) * h->n + t] = x[((size_t)part * h->n + t) * K + c];
    return 1;
}

/* The kinds of pieces of both halves, matched by their highest weights. *kind gets the list. */
static int eqnn__pieces_find(eqnn__wing h[2], eqnn__piece **kind)
{
    eqnn__space *w = h[0].l->w;
    int count = 0;
    *kind = (eqnn__piece *)eqnn__space_take(w, (size_t)(h[0].groups + h[1].groups), sizeof **kind);
    if (!*kind) return -1;
    for (int s = 0; s < 2; s++)
        for (int g = 0; g < h[s].groups; g++) {
            eqnn__z *top;
            int m = eqnn__wing_highest(&h[s], g, &top), k = 0;
            if (m < 0) return -1;
            if (m == 0) continue;
            while (k < count && fabs((*kind)[k].weight - h[s].weight[g]) > EQNN__DIFFERENT / 2) k++;
            if (k == count) (*kind)[count++].weight = h[s].weight[g];
            (*kind)[k].m[s] = m;
            (*kind)[k].group[s] = g;
            (*kind)[k].top[s] = top;
        }
    return count;
}

/* Bases of all pieces. They must fill both halves: then, by Schur's lemma, nothing can be missing
   from the result. Kinds that are in one half only are dropped. Returns how many stay; -1: no
   memory; -2: not filled. */
static int eqnn__pieces_make(eqnn__wing h[2], eqnn__piece *kind, int count)
{
    eqnn__space *w = h[0].l->w;
    size_t filled[2] = { 0, 0 }, most = h[0].n > h[1].n ? h[0].n : h[1].n;
    int kept = 0;
    eqnn__word *node = (eqnn__word *)eqnn__space_take(w, most, sizeof *node);
    if (!node) return -1;
    for (int k = 0; k < count; k++) {
        eqnn__piece *p = &kind[k];
        p->dim = eqnn__piece_basis(h, p, node, (int)most);
        if (p->dim <= 0) return p->dim ? -1 : -2;
        for (int s = 0; s < 2; s++) filled[s] += (size_t)p->m[s] * (size_t)p->dim;
        if (!p->m[0] || !p->m[1]) continue;
        for (int s = 0; s < 2; s++)
            if (!eqnn__piece_expand(&h[s], s, p, node)) return -1;
        kind[kept++] = *p;
    }
    return filled[0] == h[0].n && filled[1] == h[1].n ? kept : -2;
}

/* What one operation (a discrete generator, or complex conjugation) does to the T_ij of kind
   `from`: they become combinations of those of kind `to`, with matrix M[pairs of to][pairs of
   from]. */
typedef struct eqnn__image {
    int to;
    eqnn__z *M;
} eqnn__image;

typedef struct eqnn__middle {
    eqnn__part *part;
    eqnn__wing half[2];
    eqnn__piece *kind;
    int kinds, discrete, operations; /* discrete generators; and conjugation of real groups   */
    eqnn__image *image;              /* [operations][kinds]                                   */
    int coefficients, *base;         /* c_ij of kind k: number base[k] + i m[1] + j           */
    int *set, *local;                /* of a coefficient: its set, its place there            */
    int *member, *start;             /* coefficients by sets; a set's begin                   */
} eqnn__middle;

static size_t eqnn__piece_width(const eqnn__piece *k, int side)
{
    return (size_t)k->m[side] * (size_t)k->dim;
}

static size_t eqnn__piece_pairs(const eqnn__piece *k) { return (size_t)k->m[0] * (size_t)k->m[1]; }

/* y = operation on the columns of a kind in one half; t: as much room. */
static void eqnn__middle_operate(const eqnn__middle *m, int operation, int side,
                                 const eqnn__piece *k, double *t, double *y)
{
    const eqnn__wing *h = &m->half[side];
    const eqnn__part *p = m->part;
    size_t all = h->n * eqnn__piece_width(k, side);
    if (operation < m->discrete) {
        eqnn__kronecker(p->matrix + (size_t)(p->lie + operation) * (size_t)p->factors + h->first,
                        p->factor + h->first, h->factors, 0, 2, h->n, eqnn__piece_width(k, side),
                        k->u[side], t, y);
        return;
    }
    for (size_t i = 0; i < all; i++) y[i] = k->u[side][i], y[all + i] = -k->u[side][all + i];
}

/* G[Ka][Kb] = U_a^H y, split into real and imaginary parts, which stand one behind the other. */
static void eqnn__middle_overlap(const eqnn__wing *h, int side, const eqnn__piece *a, size_t Kb,
                                 const double *y, double *G)
{
    size_t Ka = eqnn__piece_width(a, side), n = h->n;
    const double *re = a->turned[side], *im = re + Ka * n;
    int rows = (int)Ka, cols = (int)Kb, deep = (int)n;
    memset(G, 0, 2 * Ka * Kb * sizeof *G);
    eqnn__matrix_product(rows, cols, deep, 1, re, n, y, Kb, G, Kb);
    eqnn__matrix_product(rows, cols, deep, 1, im, n, y + n * Kb, Kb, G, Kb);
    eqnn__matrix_product(rows, cols, deep, 1, re, n, y + n * Kb, Kb, G + Ka * Kb, Kb);
    eqnn__matrix_product(rows, cols, deep, -1, im, n, y, Kb, G + Ka * Kb, Kb);
}

/* The kind whose span holds one random vector (2 planes of n) of the left half entirely, or -1. */
static int eqnn__middle_home(const eqnn__middle *m, const double *v)
{
    size_t n = m->half[0].n;
    double size = 0;
    for (size_t i = 0; i < 2 * n; i++) size += v[i] * v[i];
    for (int k = 0; k < m->kinds; k++) {
        size_t K = eqnn__piece_width(&m->kind[k], 0);
        const double *re = m->kind[k].turned[0], *im = re + K * n;
        double inside = 0;
        for (size_t c = 0; c < K; c++) {
            double x = 0, y = 0;
            for (size_t i = 0; i < n; i++) {
                x += re[c * n + i] * v[i] + im[c * n + i] * v[n + i];
                y += re[c * n + i] * v[n + i] - im[c * n + i] * v[i];
            }
            inside += x * x + y * y;
        }
        if (inside > (1 - 1e-8) * size) return k;
    }
    return -1;
}

/* M_(ij),(kl) = <T_ij, operation T_kl> / dim = sum over a, b of G_ia,kb G'_ja,lb / dim. */
static void eqnn__middle_matrix(const eqnn__piece *a, const eqnn__piece *b, double *const G[2],
                                eqnn__z *M)
{
    size_t d = (size_t)a->dim, e = (size_t)b->dim, at = 0;
    size_t K0 = eqnn__piece_width(b, 0), K1 = eqnn__piece_width(b, 1);
    size_t im0 = eqnn__piece_width(a, 0) * K0, im1 = eqnn__piece_width(a, 1) * K1;
    for (size_t i = 0; i < (size_t)a->m[0]; i++)
        for (size_t j = 0; j < (size_t)a->m[1]; j++)
            for (size_t k = 0; k < (size_t)b->m[0]; k++)
                for (size_t l = 0; l < (size_t)b->m[1]; l++) {
                    double re = 0, im = 0;
                    for (size_t r = 0; r < d; r++) {
                        const double *x = G[0] + (i * d + r) * K0 + k * e;
                        const double *y = G[1] + (j * d + r) * K1 + l * e;
                        for (size_t s = 0; s < e; s++) {
                            re += x[s] * y[s] - x[im0 + s] * y[im1 + s];
                            im += x[s] * y[im1 + s] + x[im0 + s] * y[s];
                        }
                    }
                    M[at++] = eqnn__z_of(re / (double)d, im / (double)d);
                }
}

/* Where an operation takes the pieces of a kind, and the overlaps G of both halves with its image.
   1; 0: not into one kind; -1: no memory. */
static int eqnn__middle_meet(eqnn__middle *m, int operation, int from, int *to, double *G[2])
{
    eqnn__space *w = m->part->w;
    const eqnn__piece *b = &m->kind[from];
    size_t K[2] = { eqnn__piece_width(b, 0), eqnn__piece_width(b, 1) }, n0 = m->half[0].n;
    uint64_t seed = 31;
    for (int s = 0; s < 2; s++) G[s] = eqnn__space_doubles(w, 2 * K[s], K[s]);
    if (!G[0] || !G[1]) return -1;
    const eqnn__scrap *mark = w->top;
    size_t room[2] = { 2 * n0 * K[0], 2 * m->half[1].n * K[1] };
    double *t = eqnn__space_doubles(w, room[0] > room[1] ? room[0] : room[1], 1);
    double *y = eqnn__space_doubles(w, room[0] + room[1], 1), *v = eqnn__space_doubles(w, n0, 2);
    if (!t || !y || !v) return -1;
    for (int s = 0; s < 2; s++) eqnn__middle_operate(m, operation, s, b, t, y + (s ? room[0] : 0));
    for (size_t c = 0; c < K[0]; c++) {
        double xi = eqnn__generic(&seed);
        for (size_t i = 0; i < 2 * n0; i++) v[i] += xi * y[i * K[0] + c];
    }
    *to = eqnn__middle_home(m, v);
    if (*to < 0) return 0;
    const eqnn__piece *a = &m->kind[*to];
    if (a->dim != b->dim || a->m[0] != b->m[0] || a->m[1] != b->m[1]) return 0;
    for (int s = 0; s < 2; s++)
        eqnn__middle_overlap(&m->half[s], s, a, K[s], y + (s ? room[0] : 0), G[s]);
    eqnn__space_back(w, mark);
    return 1;
}

/* The complex y[n] with K conj(y) = y, K symmetric and unitary, are a real space of dimension n. On
   (Re y, Im y) they are the eigenvalue 1 of a reflection R, and (1 + R) / 2 is a projector of rank
   n, whose Cholesky factor has orthonormal columns: they are the answer, the rows of Y[n][n].
   1; 0: K is not so; -1: no memory. */
static int eqnn__real_vectors(eqnn__space *w, size_t n, const eqnn__z *K, eqnn__z *Y)
{
    const eqnn__scrap *mark = w->top;
    size_t N = 2 * n;
    double *P = eqnn__space_doubles(w, N, N), *L = eqnn__space_doubles(w, N, N + 33);
    int *order = eqnn__space_ints(w, N);
    if (!P || !L || !order) return -1;
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++) {
            eqnn__z k = K[i * n + j];
            P[i * N + j] = ((i == j) + k.re) / 2;
            P[(n + i) * N + n + j] = ((i == j) - k.re) / 2;
            P[i * N + n + j] = P[(n + j) * N + i] = k.im / 2;
        }
    size_t rank = (size_t)eqnn__cholesky(N, P, 1e-10, order, L, L + N * N);
    for (size_t i = 0; rank == n && i < N; i++)
        for (size_t q = 0; q < n; q++) {
            double y = q <= i ? L[i * N + q] : 0;
            if ((size_t)order[i] < n) Y[q * n + (size_t)order[i]].re = y;
            else Y[q * n + (size_t)order[i] - n].im = y;
        }
    eqnn__space_back(w, mark);
    return rank == n;
}

/* By Schur's lemma G is a product sigma x tau of a matrix between copies and one between
   components; sigma[m][m], unitary, is read off where tau is largest. */
static void eqnn__middle_copies(const eqnn__piece *a, int side, const double *G, eqnn__z *sigma)
{
    size_t m = (size_t)a->m[side], d = (size_t)a->dim, K = m * d, best = 0;
    double norm = 0, most = 0;
    for (size_t i = 0; i < K * K; i++) {
        double size = G[i] * G[i] + G[K * K + i] * G[K * K + i];
        if (size > most) most = size, best = i;
    }
    for (size_t i = 0; i < m; i++)
        for (size_t k = 0; k < m; k++) {
            size_t at = (i * d + best / K % d) * K + k * d + best % d;
            sigma[i * m + k] = eqnn__z_of(G[at], G[K * K + at]);
            norm += eqnn__z_square(sigma[i * m + k]);
        }
    for (size_t i = 0; i < m * m; i++) sigma[i] = eqnn__z_scale(sqrt((double)m / norm), sigma[i]);
}

/* Copy q becomes the sum over i of Y[q][i] times copy i. */
static int eqnn__piece_mix(eqnn__space *w, const eqnn__wing *h, int side, eqnn__piece *k,
                           const eqnn__z *Y)
{
    const eqnn__scrap *mark = w->top;
    size_t m = (size_t)k->m[side], d = (size_t)k->dim, K = m * d, n = h->n, all = K * n;
    double *old = eqnn__space_doubles(w, 2 * all, 1), *now = k->turned[side];
    if (!old) return 0;
    memcpy(old, now, 2 * all * sizeof *old);
    memset(now, 0, 2 * all * sizeof *now);
    for (size_t q = 0; q < m; q++)
        for (size_t i = 0; i < m; i++) {
            eqnn__z y = Y[q * m + i];
            double *re = now + q * d * n, *im = re + all;
            const double *a = old + i * d * n, *b = a + all;
            for (size_t t = 0; eqnn__z_square(y) > 0 && t < d * n; t++) {
                re[t] += y.re * a[t] - y.im * b[t];
                im[t] += y.re * b[t] + y.im * a[t];
            }
        }
    for (size_t part = 0; part < 2; part++)
        for (size_t c = 0; c < K; c++)
            for (size_t t = 0; t < n; t++)
                k->u[side][(part * n + t) * K + c] = now[(part * K + c) * n + t];
    eqnn__space_back(w, mark);
    return 1;
}

/* New copies Y of kind `to` in one half, so that conjugation takes copy i of `from` to copy i of
   `to`, without mixing them. A kind that is its own conjugate has such copies where sigma is
   symmetric (real type); where it is antisymmetric (quaternionic type) they stay as they are. */
static int eqnn__middle_align(eqnn__middle *m, int side, int from, int to, const double *G)
{
    eqnn__space *w = m->part->w;
    eqnn__piece *a = &m->kind[to];
    size_t n = (size_t)a->m[side];
    eqnn__z *sigma = (eqnn__z *)eqnn__space_take(w, 2 * n * n, sizeof *sigma), *Y = sigma + n * n;
    double odd = 0;
    int good = 1;
    if (!sigma) return -1;
    eqnn__middle_copies(a, side, G, sigma);
    for (size_t i = 0; i < n * n; i++) {
        odd += eqnn__z_square(eqnn__z_sub(sigma[i], sigma[i % n * n + i / n]));
        Y[i] = sigma[i % n * n + i / n];
    }
    if (from == to && odd > 1e-12) return 1;
    if (from == to) {
        for (size_t i = 0; i < n * n; i++) Y[i] = eqnn__z_of(0, 0);
        good = eqnn__real_vectors(w, n, sigma, Y);
    }
    if (good > 0) good = eqnn__piece_mix(w, &m->half[side], side, a, Y) ? 1 : -1;
    return good;
}

/* Copies that conjugation does not mix: then few coefficients depend on each other. */
static int eqnn__middle_copies_real(eqnn__middle *m)
{
    for (int k = 0; k < m->kinds; k++) {
        const eqnn__scrap *mark = m->part->w->top;
        double *G[2];
        int to, good = eqnn__middle_meet(m, m->discrete, k, &to, G);
        for (int s = 0; s < 2 && good > 0 && to >= k; s++)
            good = eqnn__middle_align(m, s, k, to, G[s]);
        eqnn__space_back(m->part->w, mark);
        if (good <= 0) return good;
    }
    return 1;
}

/* What an operation does to the T_ij of one kind. */
static int eqnn__middle_image(eqnn__middle *m, int operation, int from)
{
    eqnn__space *w = m->part->w;
    eqnn__image *image = &m->image[operation * m->kinds + from];
    size_t pairs = eqnn__piece_pairs(&m->kind[from]);
    double *G[2];
    image->M = (eqnn__z *)eqnn__space_take(w, pairs * pairs, sizeof *image->M);
    const eqnn__scrap *mark = w->top;
    if (!image->M) return -1;
    int good = eqnn__middle_meet(m, operation, from, &image->to, G);
    if (good > 0) eqnn__middle_matrix(&m->kind[image->to], &m->kind[from], G, image->M);
    eqnn__space_back(w, mark);
    return good;
}

static int eqnn__set_root(int *set, int i)
{
    while (set[i] != i) i = set[i] = set[set[i]];
    return i;
}

/* Coefficients that some operation connects belong to one set, and sets are solved one by one. */
static void eqnn__middle_connect(eqnn__middle *m)
{
    for (int i = 0; i < m->coefficients; i++) m->set[i] = i;
    for (int o = 0; o < m->operations; o++)
        for (int k = 0; k < m->kinds; k++) {
            const eqnn__image *image = &m->image[o * m->kinds + k];
            int pairs = (int)eqnn__piece_pairs(&m->kind[k]);
            for (int i = 0; i < pairs * pairs; i++) {
                if (eqnn__z_square(image->M[i]) < 1e-22) continue;
                int a = eqnn__set_root(m->set, m->base[image->to] + i / pairs);
                int b = eqnn__set_root(m->set, m->base[k] + i % pairs);
                m->set[a > b ? a : b] = a < b ? a : b;
            }
        }
    for (int i = 0; i < m->coefficients; i++) m->set[i] = eqnn__set_root(m->set, i);
    for (int i = 0; i < m->coefficients; i++) m->local[i] = m->start[m->set[i] + 1]++;
    for (int i = 0; i < m->coefficients; i++) m->start[i + 1] += m->start[i];
    for (int i = 0; i < m->coefficients; i++) m->member[m->start[m->set[i]] + m->local[i]] = i;
}

static int eqnn__middle_sets(eqnn__middle *m)
{
    eqnn__space *w = m->part->w;
    size_t images = (size_t)m->operations * (size_t)m->kinds;
    m->image = (eqnn__image *)eqnn__space_take(w, images + 1, sizeof *m->image);
    m->base = eqnn__space_ints(w, (size_t)m->kinds + 1);
    if (!m->image || !m->base) return -1;
    int good = m->operations > m->discrete ? eqnn__middle_copies_real(m) : 1;
    for (int k = 0; k < m->kinds; k++)
        m->base[k + 1] = m->base[k] + (int)eqnn__piece_pairs(&m->kind[k]);
    for (int o = 0; good > 0 && o < m->operations; o++)
        for (int k = 0; good > 0 && k < m->kinds; k++) good = eqnn__middle_image(m, o, k);
    if (good <= 0) return good;
    m->coefficients = m->base[m->kinds];
    size_t count = (size_t)m->coefficients + 1;
    int *ints = eqnn__space_ints(w, 4 * count);
    if (!ints) return -1;
    m->set = ints;
    m->local = ints + count;
    m->member = ints + 2 * count;
    m->start = ints + 3 * count;
    eqnn__middle_connect(m);
    return 1;
}

/* The kind of a coefficient. */
static int eqnn__middle_kind(const eqnn__middle *m, int coefficient)
{
    int k = 0;
    while (m->base[k + 1] <= coefficient) k++;
    return k;
}

/* out[row of the set] += column of an operation's matrix times x, of one member of the set. */
static void eqnn__middle_column(const eqnn__middle *m, int operation, int coefficient, eqnn__z x,
                                size_t stride, eqnn__z *out)
{
    int k = eqnn__middle_kind(m, coefficient), column = coefficient - m->base[k];
    const eqnn__image *image = &m->image[operation * m->kinds + k];
    size_t pairs = eqnn__piece_pairs(&m->kind[k]);
    for (size_t r = 0; r < pairs; r++) {
        int row = m->base[image->to] + (int)r;
        eqnn__z v = image->M[r * pairs + (size_t)column];
        if (m->set[row] != m->set[coefficient]) continue; /* nothing but rounding errors */
        eqnn__z *at = out + (size_t)m->local[row] * stride;
        *at = eqnn__z_add(*at, eqnn__z_mul(v, x));
    }
}

/* Coefficients that all discrete generators leave alone: M c = c. N[returned][size]. */
static int eqnn__middle_fixed(eqnn__middle *m, const int *member, size_t size, eqnn__z *N)
{
    eqnn__space *w = m->part->w;
    const eqnn__scrap *mark = w->top;
    size_t rows = size * (size_t)m->discrete;
    eqnn__z *A = (eqnn__z *)eqnn__space_take(w, rows * size + 1, sizeof *A);
    if (!A) return -1;
    for (int o = 0; o < m->discrete; o++)
        for (size_t i = 0; i < size; i++) {
            eqnn__z *column = A + (size_t)o * size * size + i;
            column[i * size].re -= 1;
            eqnn__middle_column(m, o, member[i], eqnn__z_of(1, 0), size, column);
        }
    double gap = eqnn__basis_opts_of(m->part->ctx).gap;
    int found = eqnn__z_null(w, (int)rows, (int)size, A, gap, N);
    eqnn__space_back(w, mark);
    return found;
}

/* Of the complex combinations y of N[count][size] the real vectors are those with K conj(y) = y,
   where K = N^H Z and Z is what conjugation makes of N. N becomes the coefficients of a real
   basis. */
static int eqnn__middle_real(eqnn__middle *m, const int *member, size_t size, size_t count,
                             eqnn__z *N)
{
    eqnn__space *w = m->part->w;
    const eqnn__scrap *mark = w->top;
    eqnn__z *Z = (eqnn__z *)eqnn__space_take(w, count * size, sizeof *Z);
    eqnn__z *K = (eqnn__z *)eqnn__space_take(w, 2 * count * count, sizeof *K), *Y;
    if (!Z || !K) return -1;
    Y = K + count * count;
    for (size_t t = 0; t < count; t++)
        for (size_t i = 0; i < size; i++) {
            eqnn__z c = eqnn__z_conj(N[t * size + i]);
            eqnn__middle_column(m, m->discrete, member[i], c, 1, Z + t * size);
        }
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < count; j++)
            K[i * count + j] = eqnn__z_dot(size, N + i * size, Z + j * size);
    int good = eqnn__real_vectors(w, count, K, Y);
    memcpy(Z, N, count * size * sizeof *Z);
    memset(N, 0, count * size * sizeof *N);
    for (size_t q = 0; good > 0 && q < count; q++)
        for (size_t t = 0; t < count; t++)
            eqnn__z_axpy(size, Y[q * count + t], Z + t * size, N + q * size);
    eqnn__space_back(w, mark);
    return good;
}

/* Solves one set: N[count][size] are its coefficients. */
static int eqnn__middle_solve(eqnn__middle *m, int set, eqnn__z **N, int *count)
{
    const int *member = m->member + m->start[set];
    size_t size = (size_t)(m->start[set + 1] - m->start[set]);
    *N = (eqnn__z *)eqnn__space_take(m->part->w, size * size, sizeof **N);
    if (!*N) return -1;
    *count = (int)size;
    if (m->discrete) *count = eqnn__middle_fixed(m, member, size, *N);
    else
        for (size_t i = 0; i < size; i++) (*N)[i * (size + 1)] = eqnn__z_of(1, 0);
    if (*count <= 0 || m->part->field == 2) return *count < 0 ? -1 : 1;
    return eqnn__middle_real(m, member, size, (size_t)*count, *N);
}

/* Q += sum over a of u_ia x Y_a for one copy i of the left half, Y[2][dim][n of R]; real part, and
   imaginary part if wanted. */
static void eqnn__middle_outer(const eqnn__middle *m, const eqnn__piece *p, size_t i,
                               const double *Y, double *re, double *im)
{
    size_t n = m->half[1].n, K = eqnn__piece_width(p, 0), d = (size_t)p->dim;
    int rows = (int)m->half[0].n, cols = (int)n, deep = p->dim;
    const double *u = p->u[0] + i * d, *v = u + m->half[0].n * K;
    eqnn__matrix_product(rows, cols, deep, 1, u, K, Y, n, re, n);
    eqnn__matrix_product(rows, cols, deep, -1, v, K, Y + d * n, n, re, n);
    if (!im) return;
    eqnn__matrix_product(rows, cols, deep, 1, u, K, Y + d * n, n, im, n);
    eqnn__matrix_product(rows, cols, deep, 1, v, K, Y, n, im, n);
}

/* Q += sum of c_ij T_ij / sqrt(dim) over the members of a set. Those with the same u_i follow each
   other: their conj(w_j) are summed first, into Y. */
static void eqnn__middle_write(const eqnn__middle *m, int set, const eqnn__z *c, double *Y,
                               double *re, double *im)
{
    const int *member = m->member + m->start[set];
    size_t n = m->half[1].n;
    int size = m->start[set + 1] - m->start[set];
    for (int s = 0; s < size;) {
        const eqnn__piece *p = &m->kind[eqnn__middle_kind(m, member[s])];
        int base = m->base[p - m->kind], i = (member[s] - base) / p->m[1], any = 0;
        size_t d = (size_t)p->dim, all = eqnn__piece_width(p, 1) * n;
        memset(Y, 0, 2 * d * n * sizeof *Y);
        for (; s < size && member[s] < base + (i + 1) * p->m[1]; s++) {
            eqnn__z f = eqnn__z_scale(1 / sqrt((double)p->dim), c[s]);
            size_t j = (size_t)((member[s] - base) % p->m[1]);
            const double *x = p->turned[1] + j * d * n, *y = x + all;
            if (eqnn__z_square(f) < 1e-30) continue;
            any = 1;
            for (size_t t = 0; t < d * n; t++) {
                Y[t] += f.re * x[t] - f.im * y[t];
                Y[d * n + t] += f.re * y[t] + f.im * x[t];
            }
        }
        if (any) eqnn__middle_outer(m, p, (size_t)i, Y, re, im);
    }
}

/* Coefficients of all sets: N[set][count[set]][size of the set]. Returns as the others. */
static int eqnn__middle_solve_all(eqnn__middle *m, eqnn__z **N, int *count, int64_t *rank)
{
    *rank = 0;
    for (int s = 0; s < m->coefficients; s++) {
        if (m->set[s] != s) continue;
        int good = eqnn__middle_solve(m, s, &N[s], &count[s]);
        if (good <= 0) return good;
        *rank += count[s];
    }
    return 1;
}

/* The basis vectors from their coefficients. */
static int eqnn__middle_finish(eqnn__middle *m, eqnn__found *found)
{
    eqnn__part *p = m->part;
    size_t n = p->n, most = 1, q = 0, sets = (size_t)m->coefficients + 1;
    eqnn__z **N = (eqnn__z **)eqnn__space_take(p->w, sets, sizeof *N);
    int *count = eqnn__space_ints(p->w, sets), complex_numbers = p->field == 2;
    if (!N || !count) return -1;
    int good = eqnn__middle_solve_all(m, N, count, &found->rank);
    if (good <= 0) return good;
    for (int k = 0; k < m->kinds; k++)
        if ((size_t)m->kind[k].dim > most) most = (size_t)m->kind[k].dim;
    double *Y = eqnn__space_doubles(p->w, 2 * most, m->half[1].n);
    double *plane = complex_numbers ? eqnn__space_doubles(p->w, n, 2) : NULL;
    found->Q = eqnn__space_doubles(p->out, (size_t)found->rank * n + 1, (size_t)p->field);
    if (!Y || !found->Q || (complex_numbers && !plane)) return -1;
    for (int s = 0; s < m->coefficients; s++)
        for (int t = 0; m->set[s] == s && t < count[s]; t++, q++) {
            double *row = found->Q + q * n * (size_t)p->field, *re = plane ? plane : row;
            const eqnn__z *c = N[s] + (size_t)t * (size_t)(m->start[s + 1] - m->start[s]);
            if (plane) memset(plane, 0, 2 * n * sizeof *plane);
            eqnn__middle_write(m, s, c, Y, re, plane ? plane + n : NULL);
            for (size_t i = 0; plane && i < 2 * n; i++) row[i] = plane[(i % 2) * n + i / 2];
            if (q % 16 == 0) eqnn__basis_progress(p->ctx, p->name, (double)q / (double)found->rank);
        }
    found->method = "weights";
    return 1;
}

/* Every pair of equal pieces gives a basis vector when there are no discrete generators beside the
   algebra: room for all is asked for before the work. */
static int eqnn__pieces_fit(const eqnn__middle *m)
{
    eqnn__part *p = m->part;
    const eqnn__scrap *mark = p->out->top;
    size_t rank = 0;
    for (int k = 0; k < m->kinds && !m->discrete; k++) rank += eqnn__piece_pairs(&m->kind[k]);
    int fits = eqnn__space_doubles(p->out, rank * p->n + 1, (size_t)p->field) != NULL;
    eqnn__space_back(p->out, mark);
    return fits;
}

/* 1 and the basis; 0: not for this group; -1: an error. */
static int eqnn__weights_try(eqnn__part *p, uint64_t seed, eqnn__found *found)
{
    eqnn__algebra *l = (eqnn__algebra *)eqnn__space_take(p->w, 1, sizeof *l);
    eqnn__middle *m = (eqnn__middle *)eqnn__space_take(p->w, 1, sizeof *m);
    double left = 1, least = 2 * (double)p->n;
    int split = 0;
    if (!l || !m) return -1;
    int good = eqnn__algebra_make(l, p, seed);
    if (good <= 0) return good;
    for (int f = 0; f <= p->factors; f++) {
        double worse = left * left > (double)p->n ? left : (double)p->n / left;
        if (worse < least) least = worse, split = f;
        if (f < p->factors) left *= p->factor[f]->dim;
    }
    m->part = p;
    m->discrete = p->generators - p->lie;
    m->operations = m->discrete + (p->field == 1);
    good = eqnn__wing_make(&m->half[0], l, 0, split, 0);
    if (good > 0) good = eqnn__wing_make(&m->half[1], l, split, p->factors - split, 1);
    if (good <= 0) return good;
    m->kinds = eqnn__pieces_find(m->half, &m->kind);
    if (m->kinds >= 0 && !eqnn__pieces_fit(m)) return -1;
    if (m->kinds >= 0) m->kinds = eqnn__pieces_make(m->half, m->kind, m->kinds);
    if (m->kinds < 0) return m->kinds == -1 ? -1 : 0;
    good = eqnn__middle_sets(m);
    return good > 0 ? eqnn__middle_finish(m, found) : good;
}

/* A seed can be unlucky (two weights nearly equal); then another is taken. */
static int eqnn__weights(eqnn__part *p, eqnn__found *found)
{
    for (uint64_t seed = 1; seed <= 3; seed++) {
        const eqnn__scrap *mark = p->w->top;
        int good = eqnn__weights_try(p, seed, found);
        eqnn__space_back(p->w, mark);
        if (good) return good;
    }
    return 0;
}

/* --- any group: dense null space --- */

/* Real rows [count][2][n] that span a complex space of dimension count / 2 become orthonormal
   complex rows [count / 2][n][2]: the longest remainder is next, so that none is made of rounding
   errors. */
static int eqnn__complex_rows(eqnn__part *p, int count, const double *rows, double *Q)
{
    size_t n = p->n, half = (size_t)count / 2, all = (size_t)count * n;
    eqnn__z *x = (eqnn__z *)eqnn__space_take(p->w, all + 1, sizeof *x);
    if (!x) return 0;
    for (size_t i = 0; i < all; i++)
        x[i] = eqnn__z_of(rows[i / n * 2 * n + i % n], rows[(i / n * 2 + 1) * n + i % n]);
    for (size_t q = 0; q < half; q++) {
        size_t best = q;
        for (size_t r = q; r < (size_t)count; r++)
            if (eqnn__z_norm(n, x + r * n) > eqnn__z_norm(n, x + best * n)) best = r;
        eqnn__z *v = x + q * n;
        eqnn__z_swap(n, v, x + best * n);
        for (int pass = 0; pass < 2; pass++) {
            for (size_t r = 0; r < q; r++)
                eqnn__z_axpy(n, eqnn__z_scale(-1, eqnn__z_dot(n, x + r * n, v)), x + r * n, v);
            double length = eqnn__z_norm(n, v);
            for (size_t i = 0; i < n; i++) v[i] = eqnn__z_scale(1 / length, v[i]);
        }
        for (size_t r = q + 1; r < (size_t)count; r++)
            eqnn__z_axpy(n, eqnn__z_scale(-1, eqnn__z_dot(n, v, x + r * n)), v, x + r * n);
    }
    eqnn__z_to(half * n, 2, x, Q);
    return 1;
}

/* Orthonormal real rows [count][field][n] as the result. */
static int eqnn__rows_found(eqnn__part *p, int count, const double *rows, const char *method,
                            eqnn__found *found)
{
    found->method = method;
    found->rank = count / p->field;
    found->orbit = NULL;
    found->Q = eqnn__space_doubles(p->out, (size_t)found->rank * p->n + 1, (size_t)p->field);
    if (!found->Q) return -1;
    if (p->field == 2) return eqnn__complex_rows(p, count, rows, found->Q) ? 1 : -1;
    memcpy(found->Q, rows, (size_t)found->rank * p->n * sizeof *rows);
    return 1;
}

/* G[N][N], 16 columns at a time: G times unit vectors. */
static int eqnn__gram_matrix(eqnn__part *p, size_t N, double *G)
{
    const size_t P = 16;
    const eqnn__scrap *mark = p->w->top;
    double *x = eqnn__space_doubles(p->w, N * P, 5);
    if (!x) return 0;
    for (size_t c = 0; c < N; c += P) {
        size_t wide = N - c < P ? N - c : P;
        memset(x, 0, N * P * sizeof *x);
        for (size_t i = 0; i < wide; i++) x[(c + i) * P + i] = 1;
        eqnn__gram(p, P, x, x + N * P, x + 2 * N * P);
        for (size_t r = 0; r < N; r++) memcpy(G + r * N + c, x + (N + r) * P, wide * sizeof *x);
    }
    eqnn__space_back(p->w, mark);
    return 1;
}

/* From P^T G P = L L^T: with the free components unit vectors, the others follow from
   L1^T x1 = -L2^T x2. rows[N - rank][N]. */
static int eqnn__cholesky_null(eqnn__space *w, size_t N, size_t rank, const int *order,
                               const double *L, double *rows)
{
    size_t wide = N - rank;
    double *x = eqnn__space_doubles(w, N, wide + 1);
    if (!x) return 0;
    for (size_t i = 0; i < rank; i++)
        for (size_t f = 0; f < wide; f++) x[i * wide + f] = -L[(rank + f) * N + i];
    for (size_t f = 0; f < wide; f++) x[(rank + f) * wide + f] = 1;
    for (size_t i = rank; i-- > 0;) {
        for (size_t f = 0; f < wide; f++) x[i * wide + f] /= L[i * N + i];
        for (size_t j = 0; j < i; j++)
            for (size_t f = 0; f < wide; f++) x[j * wide + f] -= L[i * N + j] * x[i * wide + f];
    }
    for (size_t i = 0; i < N; i++)
        for (size_t f = 0; f < wide; f++) rows[f * N + (size_t)order[i]] = x[i * wide + f];
    return 1;
}

/* C times one row, all generators one below the other: y[generators][N], those of discrete ones
   without their scale, as eqnn__basis_holds judges them. Returns the largest entry. */
static double eqnn__constraints_of(const eqnn__part *p, size_t N, const double *row, double *y,
                                   double *t)
{
    double worst = 0;
    for (int k = 0; k < p->generators; k++, y += N) {
        eqnn__constraint(p, k, 0, 1, row, y, t);
        for (size_t i = 0; i < N; i++) {
            if (k >= p->lie) y[i] /= p->scale[k];
            if (!(fabs(y[i]) <= worst)) worst = fabs(y[i]);
        }
    }
    return worst;
}

/* Turns a and b, both of n numbers, in their plane by the angle with this cosine and sine. */
static void eqnn__turn_rows(size_t n, double cosine, double sine, double *a, double *b)
{
    for (size_t i = 0; i < n; i++) {
        double x = a[i];
        a[i] = cosine * x - sine * b[i];
        b[i] = sine * x + cosine * b[i];
    }
}

/* Turns rows of y[r][n] until every two are orthogonal, and x[r][N] along with them: their lengths
   are then the singular values (one-sided Jacobi rotations, M. R. Hestenes 1958,
   doi:10.1137/0106005). Small ones keep their digits, which they would lose in y y^T. */
static void eqnn__jacobi_rows(size_t r, size_t n, double *y, size_t N, double *x)
{
    for (int sweep = 0, turned = 1; turned && sweep < 40; sweep++) {
        turned = 0;
        for (size_t a = 0; a < r; a++)
            for (size_t b = a + 1; b < r; b++) {
                double *u = y + a * n, *v = y + b * n, uu = 0, vv = 0, uv = 0;
                for (size_t i = 0; i < n; i++)
                    uu += u[i] * u[i], vv += v[i] * v[i], uv += u[i] * v[i];
                if (!(fabs(uv) > 1e-15 * sqrt(uu) * sqrt(vv))) continue;
                double zeta = (vv - uu) / (2 * uv);
                double tangent = (zeta < 0 ? -1 : 1) / (fabs(zeta) + sqrt(1 + zeta * zeta));
                double cosine = 1 / sqrt(1 + tangent * tangent);
                eqnn__turn_rows(n, cosine, cosine * tangent, u, v);
                eqnn__turn_rows(N, cosine, cosine * tangent, x + a * N, x + b * N);
                turned = 1;
            }
    }
}

/* G is made of squares, which hide singular values of C below 1e-6 or so: the candidates
   (orthonormal rows) are looked at again by C itself. If any is not fixed, those combinations are
   kept whose singular values are below the gap. Large discrete generators multiply the rounding
   errors of candidates, here a share `error` of what they multiply: when the singular value of a
   vector that is left out could be that alone, the answer is 0, not known. Else 1 and *count has
   changed; -1: no memory. */
static int eqnn__refine(eqnn__part *p, size_t N, int *count, double *rows, double error)
{
    size_t r = (size_t)*count, tall = (size_t)p->generators * N;
    double *t = eqnn__space_doubles(p->w, N, 1), *one = eqnn__space_doubles(p->w, tall + 1, 1);
    double worst = 0, gap = eqnn__basis_opts_of(p->ctx).gap, large = 1;
    if (!t || !one) return -1;
    for (size_t q = 0; q < r; q++) {
        double entry = eqnn__constraints_of(p, N, rows + q * N, one, t);
        if (!(entry <= worst)) worst = entry;
    }
    if (worst < 1e-11) return 1;
    if (!(worst < 1e150)) return 0;
    double *y = eqnn__space_doubles(p->w, r, tall);
    if (!y) return -1;
    for (int k = p->lie; k < p->generators; k++) large = fmax(large, 1 / p->scale[k]);
    for (size_t q = 0; q < r; q++) eqnn__constraints_of(p, N, rows + q * N, y + q * tall, t);
    eqnn__jacobi_rows(r, tall, y, N, rows);
    *count = 0;
    for (size_t q = 0; q < r; q++) {
        double square = 0;
        for (size_t i = 0; i < tall; i++) square += y[q * tall + i] * y[q * tall + i];
        if (sqrt(square) > gap && sqrt(square) < error * large) return 0;
        if (sqrt(square) > gap) continue;
        memmove(rows + (size_t)(*count)++ * N, rows + q * N, N * sizeof *rows);
    }
    return 1;
}

/* When Cholesky's candidates are not precise enough for large discrete generators, a small space is
   searched as a whole, by C alone: slower, and as precise as its rounding errors allow. */
static int eqnn__dense(eqnn__part *p, eqnn__found *found)
{
    size_t N = p->n * (size_t)p->field;
    double *G = eqnn__space_doubles(p->w, N, N), *L = eqnn__space_doubles(p->w, N, N + 33);
    int *order = eqnn__space_ints(p->w, N);
    if (!G || !L || !order || !eqnn__gram_matrix(p, N, G)) return -1;
    double gap = eqnn__basis_opts_of(p->ctx).gap, tiny = fmax(1e-12, (double)N * gap * gap);
    size_t rank = (size_t)eqnn__cholesky(N, G, tiny, order, L, L + N * N);
    int count = (int)(N - rank);
    eqnn__basis_progress(p->ctx, p->name, 0.5);
    if (!eqnn__cholesky_null(p->w, N, rank, order, L, G)) return -1;
    if (rank) count = eqnn__orthonormalise(N, count, G, 1e-10);
    int known = eqnn__refine(p, N, &count, G, 1e-9);
    if (known == 0 && N <= 256) {
        memset(G, 0, N * N * sizeof *G);
        for (size_t i = 0; i < N; i++) G[i * N + i] = 1;
        count = (int)N;
        known = eqnn__refine(p, N, &count, G, 1e-12);
    }
    return known <= 0 ? known : eqnn__rows_found(p, count, G, "dense", found);
}

/* --- any group: Chebyshev-filtered iteration --- */

typedef struct eqnn__block {
    eqnn__part *part;
    size_t N, p;
    double *x, *y, *t, *rows; /* the vectors [N][p], G x, room for [4][N][p] and [p][N] */
    double *theta, *residual; /* [p]                                                    */
    eqnn__z *H, *X;           /* [p][p]                                                 */
    double *locked;           /* [room][N]: fixed vectors so far                        */
    size_t found, room;
    double top; /* bound of the spectrum of G                             */
    uint64_t seed;
} eqnn__block;

/* to[cols][rows] from from[rows][cols] */
static void eqnn__flip_block(const double *from, size_t rows, size_t cols, double *to)
{
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < cols; j++) to[j * rows + i] = from[i * cols + j];
}

/* x less what lies along the count rows y; returns its length. */
static double eqnn__clean_row(size_t N, size_t count, const double *y, double *x)
{
    double square = 0;
    for (size_t k = 0; k < count; k++, y += N) {
        double dot = 0;
        for (size_t i = 0; i < N; i++) dot += x[i] * y[i];
        for (size_t i = 0; i < N; i++) x[i] -= dot * y[i];
    }
    for (size_t i = 0; i < N; i++) square += x[i] * x[i];
    return sqrt(square);
}

/* The block loses what lies along fixed vectors and becomes orthonormal; a vector that vanishes is
   drawn anew. */
static void eqnn__block_clean(eqnn__block *b)
{
    size_t N = b->N;
    eqnn__flip_block(b->x, N, b->p, b->rows);
    for (size_t q = 0; q < b->p; q++) {
        double *x = b->rows + q * N;
        for (int pass = 0; pass < 3; pass++) {
            eqnn__clean_row(N, b->found, b->locked, x);
            double norm = eqnn__clean_row(N, q, b->rows, x);
            if (!(norm > 1e-200)) {
                for (size_t i = 0; i < N; i++) x[i] = eqnn__generic(&b->seed);
                pass = -1;
                continue;
            }
            for (size_t i = 0; i < N; i++) x[i] /= norm;
        }
    }
    eqnn__flip_block(b->rows, b->p, N, b->x);
}

/* x becomes T_m((top + a - 2 G) / (top - a)) x. The Chebyshev polynomial T_m stays within 1 on
   (a, top) and grows outside as fast as a polynomial can: most at 0, where the fixed vectors are.
   m is taken so that it is about 1e6 there (Zhou, Saad, Tiago and Chelikowsky 2006,
   doi:10.1016/j.jcp.2006.03.017). */
static void eqnn__block_filter(eqnn__block *b, double a)
{
    size_t all = b->N * b->p;
    double width = b->top - a, zero = (b->top + a) / width, before = 1, at = zero;
    double *old = b->t + 3 * all;
    memcpy(old, b->x, all * sizeof *old);
    eqnn__gram(b->part, b->p, b->x, b->y, b->t);
    for (size_t i = 0; i < all; i++) b->x[i] = zero * b->x[i] - 2 / width * b->y[i];
    for (int m = 1; m < 80 && at < 1e6; m++) {
        double next = 2 * zero * at - before;
        before = at, at = next;
        eqnn__gram(b->part, b->p, b->x, b->y, b->t);
        for (size_t i = 0; i < all; i++) {
            double v = 2 * (zero * b->x[i] - 2 / width * b->y[i]) - old[i];
            old[i] = b->x[i];
            b->x[i] = v;
        }
    }
}

/* The eigenvectors of x^T G x, by rising eigenvalue theta. */
static int eqnn__block_small(eqnn__block *b)
{
    size_t p = b->p;
    for (size_t u = 0; u < p; u++)
        for (size_t v = 0; v <= u; v++) {
            double dot = 0;
            for (size_t i = 0; i < b->N; i++) dot += b->x[i * p + u] * b->y[i * p + v];
            b->H[u * p + v] = b->H[v * p + u] = eqnn__z_of(dot, 0);
        }
    if (!eqnn__z_eigen((int)p, b->H, b->theta, b->X)) return 0;
    for (size_t u = 0; u < p; u++)
        for (size_t v = u + 1; v < p; v++)
            if (b->theta[v] < b->theta[u]) {
                eqnn__swap_doubles(1, b->theta + u, b->theta + v, 1);
                for (size_t k = 0; k < p; k++) eqnn__z_swap(1, b->X + k * p + u, b->X + k * p + v);
            }
    return 1;
}

/* Rayleigh and Ritz: x turns into the best approximations to eigenvectors inside its span, with
   their values theta and residuals |G x - theta x|. */
static int eqnn__block_ritz(eqnn__block *b)
{
    size_t N = b->N, p = b->p, all = N * p;
    double *gx = b->t + 3 * all, *nx = b->rows;
    eqnn__gram(b->part, p, b->x, b->y, b->t);
    if (!eqnn__block_small(b)) return 0;
    memset(gx, 0, all * sizeof *gx);
    memset(nx, 0, all * sizeof *nx);
    memset(b->residual, 0, p * sizeof *b->residual);
    for (size_t i = 0; i < N; i++) {
        for (size_t k = 0; k < p; k++)
            for (size_t u = 0; u < p; u++) {
                gx[i * p + u] += b->X[k * p + u].re * b->y[i * p + k];
                nx[i * p + u] += b->X[k * p + u].re * b->x[i * p + k];
            }
        for (size_t u = 0; u < p; u++) {
            double r = gx[i * p + u] - b->theta[u] * nx[i * p + u];
            b->residual[u] += r * r;
        }
    }
    memcpy(b->x, nx, all * sizeof *nx);
    for (size_t u = 0; u < p; u++) b->residual[u] = sqrt(b->residual[u]);
    return 1;
}

/* The first `count` vectors of the block join the fixed ones. */
static int eqnn__block_lock(eqnn__block *b, size_t count)
{
    if (b->found + count > b->room) {
        size_t room = 2 * b->room + count;
        double *more = eqnn__space_doubles(b->part->w, room, b->N);
        if (!more) return 0;
        if (b->found) memcpy(more, b->locked, b->found * b->N * sizeof *more);
        b->locked = more;
        b->room = room;
    }
    for (size_t u = 0; u < count; u++, b->found++)
        for (size_t i = 0; i < b->N; i++) b->locked[b->found * b->N + i] = b->x[i * b->p + u];
    return 1;
}

/* The largest eigenvalue of G by the power method, and a little more. */
static void eqnn__block_top(eqnn__block *b)
{
    size_t all = b->N * b->p;
    double most = 0;
    for (int step = 0; step < 30; step++) {
        eqnn__block_clean(b);
        eqnn__gram(b->part, b->p, b->x, b->y, b->t);
        most = 0;
        for (size_t u = 0; u < b->p; u++) {
            double norm = 0;
            for (size_t i = u; i < all; i += b->p) norm += b->y[i] * b->y[i];
            if (norm > most) most = norm;
        }
        memcpy(b->x, b->y, all * sizeof *b->x);
    }
    b->top = 1.1 * sqrt(most);
}

/* One block, from random vectors until it is sorted out: how many of its vectors are fixed. A Ritz
   value with a residual much smaller than itself has an eigenvalue near it, so it is not zero; this
   must hold twice in a row for the smallest that is not fixed. It says nothing of fixed vectors
   that the block has no room for: when an eigenvalue is so small that the filter lets it pass, its
   vector can take the place of a fixed one. They turn up in the next block. -1: never. */
static int eqnn__block_run(eqnn__block *b)
{
    int sure = 0;
    for (size_t i = 0; i < b->N * b->p; i++) b->x[i] = eqnn__generic(&b->seed);
    eqnn__block_clean(b);
    for (int step = 0; step < 400; step++) {
        size_t fixed = 0;
        if (!eqnn__block_ritz(b)) return -1;
        while (fixed < b->p && fabs(b->theta[fixed]) + b->residual[fixed] < 1e-12 * b->top) fixed++;
        if (fixed == b->p) return (int)fixed;
        double close = fixed ? 0.1 : 0.03; /* a block without fixed vectors ends the search */
        int clear =
            b->theta[fixed] > 1e-10 * b->top && b->residual[fixed] < close * b->theta[fixed];
        sure = clear ? sure + 1 : 0;
        if (sure == 2) return (int)fixed;
        double a = b->theta[b->p - 1];
        if (a < 0.02 * b->top) a = 0.02 * b->top; /* a block of fixed vectors says nothing */
        eqnn__block_filter(b, a < 0.8 * b->top ? a : 0.8 * b->top);
        eqnn__block_clean(b);
        eqnn__basis_progress(b->part->ctx, b->part->name, 1 - 1 / (1 + 0.1 * step));
    }
    return -1;
}

/* Without matrices, for what is large: blocks of vectors are filtered until fixed ones and others
   part. After each another is started beside the fixed vectors so far: nothing is done twice, and
   the search ends only when such a block, drawn at random, contributes none, or when all of the
   space is fixed. Fixed vectors that an earlier block left out cannot hide from it: they are
   filtered out of all else, whose share falls by up to 1e6 at every step. */
static int eqnn__krylov(eqnn__part *p, eqnn__found *found)
{
    eqnn__block b;
    memset(&b, 0, sizeof b);
    b.part = p;
    b.seed = 5;
    b.N = p->n * (size_t)p->field;
    b.p = b.N < 48 ? (b.N + 1) / 2 : 24;
    size_t all = b.N * b.p;
    b.x = eqnn__space_doubles(p->w, all, 7);
    b.theta = eqnn__space_doubles(p->w, b.p, 2);
    b.H = (eqnn__z *)eqnn__space_take(p->w, 2 * b.p * b.p, sizeof *b.H);
    if (!b.x || !b.theta || !b.H) return -1;
    b.y = b.x + all;
    b.t = b.x + 2 * all;
    b.rows = b.x + 6 * all;
    b.residual = b.theta + b.p;
    b.X = b.H + b.p * b.p;
    for (size_t i = 0; i < all; i++) b.x[i] = eqnn__generic(&b.seed);
    eqnn__block_top(&b);
    if (b.top < 1e-24) b.top = 1; /* constraints of rounding errors: everything is fixed */
    for (size_t fixed = b.p; fixed > 0 && b.found < b.N;) {
        if (b.p > b.N - b.found) b.p = b.N - b.found;
        int count = eqnn__block_run(&b);
        if (p->ctx->failed) return -1;
        if (count < 0) return 0;
        fixed = (size_t)count;
        if (!eqnn__block_lock(&b, fixed)) return -1;
    }
    return eqnn__rows_found(p, (int)b.found, b.locked, "krylov", found);
}

/* --- one monomial --- */

/* Runs one method; 1: found; 0: it is not for this part; -1: an error. */
static int eqnn__part_run(eqnn__part *p, eqnn_basis_method method, eqnn__found *found)
{
    const eqnn__scrap *mark = p->w->top;
    int good = method == EQNN_BASIS_ORBITS    ? eqnn__orbits(p, found)
               : method == EQNN_BASIS_WEIGHTS ? eqnn__weights(p, found)
               : method == EQNN_BASIS_DENSE   ? eqnn__dense(p, found)
                                              : eqnn__krylov(p, found);
    eqnn__space_back(p->w, mark);
    double tolerance = fmax(1e-8, eqnn__basis_opts_of(p->ctx).gap); /* what counts as zero, does */
    if (good > 0 && found->Q) good = eqnn__basis_holds(p, found, tolerance);
    return p->ctx->failed ? -1 : good;
}

/* No method has the answer. Where discrete generators are large, that is why. */
static void eqnn__part_unsolved(eqnn__part *p, const char *why)
{
    double large = 1;
    for (int k = p->lie; p->scale && k < p->generators; k++) large = fmax(large, 1 / p->scale[k]);
    eqnn__fail(p->ctx, "basis: %s of %s, %d components under %d generators: %s", p->name,
               p->group->name, (int)p->n, p->generators,
               large < 100 ? why
                           : eqnn_format(p->ctx, "%s: a discrete generator multiplies rounding "
                                                 "errors there by %.0e; use one nearer to "
                                                 "orthogonal", why, large));
}

/* The methods that may work, the cheapest first: exact orbits where all is permutations; weights
   where there is a Lie algebra; dense matrices while n^3 is small; else iteration. */
static int eqnn__part_solve(eqnn__part *p, eqnn__found *found)
{
    eqnn_basis_opts o = eqnn__basis_opts_of(p->ctx);
    int permutation = p->lie == 0, good = 0;
    double N = (double)p->n * p->field;
    for (int f = 0; f < p->factors; f++) permutation &= p->factor[f]->permutation;
    memset(found, 0, sizeof *found);
    if (o.method == EQNN_BASIS_AUTO && permutation)
        return eqnn__part_run(p, EQNN_BASIS_ORBITS, found);
    if (o.method == EQNN_BASIS_ORBITS && permutation) return eqnn__part_run(p, o.method, found);
    if (!eqnn__part_begin(p)) return -1;
    if (o.method == EQNN_BASIS_AUTO) {
        if (p->lie) good = eqnn__part_run(p, EQNN_BASIS_WEIGHTS, found);
        if (!good && N <= 1500) good = eqnn__part_run(p, EQNN_BASIS_DENSE, found);
        if (!good) good = eqnn__part_run(p, EQNN_BASIS_KRYLOV, found);
    } else if (o.method != EQNN_BASIS_ORBITS && (o.method != EQNN_BASIS_WEIGHTS || p->lie)) {
        good = eqnn__part_run(p, o.method, found);
    }
    if (good == 0)
        eqnn__part_unsolved(p, o.method == EQNN_BASIS_AUTO ? "no method found all fixed vectors"
                                                           : "not solved by the method chosen");
    return good > 0 ? 1 : -1;
}

/* Basis vectors as rows [rank][n][field], whatever was found. */
static double *eqnn__found_rows(eqnn__space *w, const eqnn__found *a, size_t n, int from, int field)
{
    size_t rank = (size_t)a->rank, F = (size_t)field, S = (size_t)from;
    double *Q = eqnn__space_doubles(w, rank * n + 1, F);
    int *size = a->orbit ? eqnn__space_ints(w, rank + 1) : NULL;
    if (!Q || (a->orbit && !size)) return NULL;
    for (size_t t = 0; a->orbit && t < n; t++) size[a->orbit[t]]++;
    for (size_t t = 0; a->orbit && t < n; t++)
        Q[((size_t)a->orbit[t] * n + t) * F] = 1 / sqrt((double)size[a->orbit[t]]);
    for (size_t i = 0; !a->orbit && i < rank * n; i++)
        for (size_t k = 0; k < S && k < F; k++) Q[i * F + k] = a->Q[i * S + k];
    return Q;
}

/* The vectors that two independent groups leave fixed, each on its own factors: all products. */
static int eqnn__found_product(eqnn__space *w, const eqnn__found *a, size_t na, int fa,
                               const eqnn__found *b, size_t nb, int fb, eqnn__found *out)
{
    size_t F = (size_t)(fa > fb ? fa : fb), ra = (size_t)a->rank, rb = (size_t)b->rank;
    memset(out, 0, sizeof *out);
    out->rank = a->rank * b->rank;
    out->method = !strcmp(a->method, b->method) ? a->method : "product";
    if (a->orbit && b->orbit) {
        out->orbit = eqnn__space_ints(w, na * nb);
        for (size_t t = 0; out->orbit && t < na * nb; t++)
            out->orbit[t] = a->orbit[t / nb] * (int)rb + b->orbit[t % nb];
        return out->orbit != NULL;
    }
    double *A = eqnn__found_rows(w, a, na, fa, (int)F), *B = eqnn__found_rows(w, b, nb, fb, (int)F);
    double *Q = out->Q = eqnn__space_doubles(w, ra * rb * na * nb + 1, F);
    if (!A || !B || !Q) return 0;
    for (size_t i = 0; i < ra * rb * na * nb; i++) {
        size_t t = i % (na * nb), q = i / (na * nb);
        const double *x = A + (q / rb * na + t / nb) * F, *y = B + (q % rb * nb + t % nb) * F;
        Q[i * F] = x[0] * y[0] - (F == 2 ? x[F - 1] * y[F - 1] : 0);
        if (F == 2) Q[i * F + 1] = x[0] * y[F - 1] + x[F - 1] * y[0];
    }
    return 1;
}

/* The part of m that begins with factor `first`: the run of factors of one group. */
static void eqnn__part_of(const eqnn__monomial *m, int first, eqnn__space *w, eqnn__space *out,
                          eqnn__part *p)
{
    memset(p, 0, sizeof *p);
    p->ctx = m->ctx;
    p->w = w;
    p->out = out;
    p->name = m->name;
    p->factor = m->factor + first;
    p->group = p->factor[0]->group;
    p->field = p->group->field;
    p->lie = p->group->lie;
    p->generators = p->lie + p->group->discrete;
    p->n = 1;
    for (; first + p->factors < m->factors && p->factor[p->factors]->group == p->group;
         p->factors++)
        p->n *= (size_t)p->factor[p->factors]->dim;
}

/* All parts of a monomial and their product. */
static int eqnn__monomial_found(const eqnn__monomial *m, eqnn__space *w, eqnn__space *out,
                                eqnn__found *all, int *field)
{
    size_t n = 1;
    *field = 1;
    for (int first = 0; first < m->factors;) {
        eqnn__part p;
        eqnn__found one;
        eqnn__part_of(m, first, w, out, &p);
        int good = eqnn__part_solve(&p, &one) > 0;
        eqnn__space_back(w, NULL);
        if (good && first) {
            eqnn__found both;
            good = eqnn__found_product(out, all, n, *field, &one, p.n, p.field, &both);
            if (good) one = both;
        }
        if (!good) return 0;
        *all = one;
        if (p.field > *field) *field = p.field;
        n *= p.n;
        first += p.factors;
    }
    return 1;
}

/* What was found moves to memory that lasts as long as the context. */
static eqnn__solution *eqnn__solution_keep(eqnn_ctx *c, size_t n, int from, int field,
                                           const eqnn__found *a)
{
    size_t rank = (size_t)a->rank, F = (size_t)field, S = (size_t)from;
    eqnn__solution *s = (eqnn__solution *)eqnn__keep_alloc(c, sizeof *s);
    if (!s) return NULL;
    s->rank = a->rank;
    s->method = a->method;
    if (a->orbit) {
        int *orbit = (int *)eqnn__keep_alloc(c, n * sizeof *orbit);
        int *size = (int *)eqnn__keep_alloc(c, (rank + 1) * sizeof *size);
        if (!orbit || !size) return NULL;
        memcpy(orbit, a->orbit, n * sizeof *orbit);
        for (size_t t = 0; t < n; t++) size[orbit[t]]++;
        s->orbit = orbit;
        s->orbit_size = size;
    } else if (rank) {
        double *Q = (double *)eqnn__keep_alloc(c, rank * n * F * sizeof *Q);
        if (!Q) return NULL;
        for (size_t i = 0; i < rank * n; i++)
            for (size_t k = 0; k < S; k++) Q[i * F + k] = a->Q[i * S + k];
        s->Q = Q;
    }
    return s;
}

/* --- the file of bases --- */

/* A basis that is known: solved here, or read. */
typedef struct eqnn__basis_record {
    const char *name; /* "V*V.T#0123456789abcdef": monomial and its key */
    int n, field;
    const eqnn__solution *solution;
    struct eqnn__basis_record *next;
} eqnn__basis_record;

static eqnn__basis_record *eqnn__record_find(const eqnn__groups *g, const char *name)
{
    const char *key = strrchr(name, '#');
    for (eqnn__basis_record *r = g->record; r; r = r->next)
        if (key && !strcmp(strrchr(r->name, '#'), key)) return r;
    return NULL;
}

static int eqnn__record_add(eqnn_ctx *c, const char *name, int n, int field,
                            const eqnn__solution *s)
{
    eqnn__basis_record *r = (eqnn__basis_record *)eqnn__keep_alloc(c, sizeof *r);
    if (!r) return 0;
    r->name = eqnn__keep_string(c, name);
    r->n = n;
    r->field = field;
    r->solution = s;
    r->next = c->groups->record;
    c->groups->record = r;
    return r->name != NULL;
}

/* Numbers of a record, least byte first; only hashed when o is NULL. */
static uint64_t eqnn__record_emit(eqnn__out *o, const eqnn__basis_record *r)
{
    const eqnn__solution *s = r->solution;
    size_t size = s->orbit ? 4 : 8, n = (size_t)r->n;
    size_t count = s->orbit ? n : (size_t)s->rank * n * (size_t)r->field;
    unsigned char block[4096];
    uint64_t hash = EQNN__HASH;
    for (size_t at = 0; at < count;) {
        size_t now = count - at < sizeof block / size ? count - at : sizeof block / size;
        for (size_t i = 0; i < now; i++) {
            uint64_t u = 0;
            if (s->orbit) u = (uint64_t)s->orbit[at + i];
            else memcpy(&u, &s->Q[at + i], sizeof u);
            for (size_t k = 0; k < size; k++) block[i * size + k] = (unsigned char)(u >> (8 * k));
        }
        hash = eqnn__hash(hash, block, now * size);
        if (o) eqnn__emit(o, block, now * size);
        at += now;
    }
    return hash;
}

/* The header: __metadata__ with a checksum for each entry, then the entries. */
static void eqnn__records_header(eqnn__out *o, const eqnn__basis_record *first)
{
    char text[256];
    size_t at = 0;
    eqnn__emit_text(o, "{\"__metadata__\":{\"format\":\"eqnn bases\"");
    for (const eqnn__basis_record *r = first; r; r = r->next) {
        eqnn__emit_text(o, ",\"");
        eqnn__emit_escaped(o, r->name);
        snprintf(text, sizeof text, "\":\"%016llx\"",
                 (unsigned long long)eqnn__record_emit(NULL, r));
        eqnn__emit_text(o, text);
    }
    eqnn__emit_text(o, "}");
    for (const eqnn__basis_record *r = first; r; r = r->next) {
        const eqnn__solution *s = r->solution;
        size_t bytes =
            s->orbit ? 4 * (size_t)r->n : 8 * (size_t)s->rank * (size_t)r->n * (size_t)r->field;
        eqnn__emit_text(o, ",\"");
        eqnn__emit_escaped(o, r->name);
        if (s->orbit) snprintf(text, sizeof text, "\":{\"dtype\":\"I32\",\"shape\":[%d]", r->n);
        else
            snprintf(text, sizeof text, "\":{\"dtype\":\"F64\",\"shape\":[%lld,%d,%d]",
                     (long long)s->rank, r->n, r->field);
        eqnn__emit_text(o, text);
        snprintf(text, sizeof text, ",\"data_offsets\":[%llu,%llu]}", (unsigned long long)at,
                 (unsigned long long)(at + bytes));
        eqnn__emit_text(o, text);
        at += bytes;
    }
    eqnn__emit_text(o, "}");
}

static void eqnn__records_write(eqnn__out *o, const void *user)
{
    const eqnn__basis_record *first = (const eqnn__basis_record *)user;
    eqnn__out count;
    unsigned char length[8];
    memset(&count, 0, sizeof count);
    eqnn__records_header(&count, first);
    size_t padded = (count.length + 7) / 8 * 8;
    for (int k = 0; k < 8; k++) length[k] = (unsigned char)((uint64_t)padded >> (8 * k));
    eqnn__emit(o, length, 8);
    eqnn__records_header(o, first);
    for (size_t i = count.length; i < padded; i++) eqnn__emit(o, " ", 1);
    for (const eqnn__basis_record *r = first; r; r = r->next) eqnn__record_emit(o, r);
}

/* Orbits from a file: numbered in the order of their first components. -1: they are not. */
static int64_t eqnn__orbit_check(const int64_t *orbit, size_t n)
{
    int64_t next = 0;
    for (size_t t = 0; t < n; t++) {
        if (orbit[t] < 0 || orbit[t] > next) return -1;
        next += orbit[t] == next;
    }
    return next;
}

/* The numbers of entry e into a found basis; 0 when they cannot be one. */
static int eqnn__record_numbers(eqnn_file *f, const eqnn_entry *e, eqnn__space *w, eqnn__found *a)
{
    if (e->dims == 1 && !strcmp(e->dtype, "I32")) {
        int64_t *wide = (int64_t *)eqnn__space_take(w, e->count + 1, sizeof *wide);
        a->orbit = eqnn__space_ints(w, e->count + 1);
        if (!wide || !a->orbit || !eqnn_file_read_int(f, e, wide)) return 0;
        a->rank = eqnn__orbit_check(wide, e->count);
        for (size_t t = 0; t < e->count; t++) a->orbit[t] = (int)wide[t];
        return a->rank >= 0;
    }
    if (e->dims != 3 || strcmp(e->dtype, "F64") || e->shape[2] < 1 || e->shape[2] > 2) return 0;
    a->Q = eqnn__space_doubles(w, e->count + 1, 1);
    a->rank = (int64_t)e->shape[0];
    int good = a->Q && a->rank <= (int64_t)e->shape[1] && eqnn_file_read(f, e, a->Q);
    for (size_t i = 0; good && i < e->count; i++) good = fabs(a->Q[i]) <= 1.000001;
    return good;
}

/* One entry: its name ends in a key, its numbers have the checksum of the metadata. */
static int eqnn__record_read(eqnn_ctx *c, eqnn_file *f, const eqnn_entry *e, const char *path)
{
    eqnn__space w;
    eqnn__found a;
    eqnn__basis_record r;
    char hash[24];
    const char *key = strrchr(e->name, '#'), *sum = eqnn_file_meta(f, e->name);
    int good;
    memset(&a, 0, sizeof a);
    memset(&r, 0, sizeof r);
    a.method = "file";
    eqnn__space_begin(&w, c, 0, "basis file");
    good = key && strlen(key) == 17 && sum && eqnn__record_numbers(f, e, &w, &a);
    if (good) {
        r.n = (int)(e->dims == 1 ? e->shape[0] : e->shape[1]);
        r.field = e->dims == 1 ? 1 : (int)e->shape[2];
        r.solution = eqnn__solution_keep(c, (size_t)r.n, r.field, r.field, &a);
        good = r.solution != NULL;
    }
    if (good) {
        snprintf(hash, sizeof hash, "%016llx", (unsigned long long)eqnn__record_emit(NULL, &r));
        good = !strcmp(hash, sum);
    }
    eqnn__space_back(&w, NULL);
    if (!good) eqnn__fail(c, "basis file: %.200s: %.100s is damaged, or no basis", path, e->name);
    if (good && !eqnn__record_find(c->groups, e->name))
        good = eqnn__record_add(c, e->name, r.n, r.field, r.solution);
    return good;
}

/* Takes over what is in the file: all of it, or what is not known yet. One that is not there holds
   nothing. */
static int eqnn__records_read(eqnn_ctx *c, const char *path, int all)
{
    FILE *test = fopen(path, "rb");
    if (!test) return 1;
    fclose(test);
    eqnn_file *f = eqnn_file_open(c, path);
    if (!f) return 0;
    const char *format = eqnn_file_meta(f, "format");
    if (!format || strcmp(format, "eqnn bases"))
        eqnn__fail(c, "basis file: %.200s holds something else than bases; it stays as it is",
                   path);
    for (int i = 0; !c->failed && i < eqnn_file_count(f); i++) {
        const eqnn_entry *e = eqnn_file_entry(f, i);
        if (all || !eqnn__record_find(c->groups, e->name)) eqnn__record_read(c, f, e, path);
    }
    eqnn_file_close(f);
    return !c->failed;
}

/* Is all that is in the file known? What is not is taken over, and has to be written, too. */
static int eqnn__records_known(eqnn_ctx *c)
{
    const eqnn__basis_record *first = c->groups->record;
    int good = eqnn__records_read(c, c->groups->path, 0);
    c->op = "basis";
    return good && c->groups->record == first;
}

/* What others have added since is kept: the file is read again before it is replaced. It is written
   anew as long as others are quicker, each time with a new basis. */
static int eqnn__records_save(eqnn_ctx *c)
{
    eqnn__groups *g = c->groups;
    int done = -1;
    eqnn__records_known(c);
    while (done < 0 && !c->failed)
        done = eqnn__write_beside(c, g->path, eqnn__records_known, eqnn__records_write, g->record);
    return done > 0;
}

EQNN_API int eqnn_basis_file(eqnn_ctx *c, const char *path)
{
    if (!c || c->failed) return 0;
    eqnn__groups *g = eqnn__groups_of(c);
    if (!g) return 0;
    g->path = NULL;
    if (!path) return 1;
    if (eqnn__records_read(c, path, 1)) g->path = eqnn__keep_string(c, path);
    return !c->failed;
}

/* The record of m, or NULL: of the same key, size and numbers. */
static const eqnn__solution *eqnn__solution_stored(const eqnn__monomial *m, const char *name)
{
    const eqnn__basis_record *r = eqnn__record_find(m->ctx->groups, name);
    return r && r->n == m->dim && (r->field == m->field || r->solution->orbit || !r->solution->rank)
               ? r->solution
               : NULL;
}

static const eqnn__solution *eqnn__solve(const eqnn__monomial *m)
{
    eqnn_ctx *c = m->ctx;
    eqnn__space w, out;
    eqnn__found all;
    int field = 1, one = 0;
    char name[256];
    if (c->failed) return NULL;
    if (m->solution) return m->solution;
    eqnn__groups *g = eqnn__groups_of(c);
    if (!g) return NULL;
    c->op = "basis";
    snprintf(name, sizeof name, "%.200s#%016llx", m->name, (unsigned long long)m->key);
    const eqnn__solution *s = eqnn__solution_stored(m, name);
    if (!s) {
        size_t memory = eqnn__basis_opts_of(c).memory;
        memset(&all, 0, sizeof all);
        all.rank = 1;
        all.orbit = &one;
        all.method = "scalar";
        eqnn__space_begin(&w, c, memory, "basis");
        eqnn__space_begin(&out, c, memory, "basis");
        if (eqnn__monomial_found(m, &w, &out, &all, &field))
            s = eqnn__solution_keep(c, (size_t)m->dim, field, all.orbit ? 1 : m->field, &all);
        eqnn__space_back(&w, NULL);
        eqnn__space_back(&out, NULL);
        if (s && m->factors && eqnn__record_add(c, name, m->dim, s->orbit ? 1 : m->field, s) &&
            g->path)
            eqnn__records_save(c);
    }
    ((eqnn__monomial *)(uintptr_t)m)->solution = (struct eqnn__solution *)(uintptr_t)s;
    return c->failed ? NULL : s;
}

/* --- what users call --- */

EQNN_API int eqnn_basis_options(eqnn_ctx *c, const eqnn_basis_opts *opts)
{
    if (!c || c->failed) return 0;
    eqnn__groups *g = eqnn__groups_of(c);
    if (!g) return 0;
    if (opts && (opts->gap < 0 || !(opts->gap < 0.1)))
        eqnn__fail(c, "basis_options: a gap of %g; it is a small positive number as 1e-8",
                   opts->gap);
    else if (opts && ((int)opts->method < EQNN_BASIS_AUTO || opts->method > EQNN_BASIS_KRYLOV))
        eqnn__fail(c, "basis_options: there is no method %d", (int)opts->method);
    else g->opts = eqnn__basis_defaults(opts);
    return !c->failed;
}

EQNN_API int64_t eqnn_basis_dim(const eqnn_rep *r)
{
    int64_t dim = 0;
    if (!r) return -1;
    for (int t = 0; t < r->terms; t++) {
        const eqnn__solution *s = eqnn__solve(r->term[t].type);
        if (!s) return -1;
        dim += s->rank;
    }
    return r->ctx->failed ? -1 : dim;
}

EQNN_API int eqnn_basis_dense(const eqnn_rep *r, double *Q)
{
    int64_t dim = eqnn_basis_dim(r);
    if (dim < 0) return 0;
    if (dim && !Q) {
        eqnn__fail(r->ctx, "basis_dense: %s: the place of the numbers is missing (NULL)", r->name);
        return 0;
    }
    size_t F = (size_t)r->field, size = (size_t)r->size, row = 0;
    for (size_t i = 0; i < (size_t)dim * size * F; i++) Q[i] = 0;
    for (int t = 0; t < r->terms; t++) {
        const eqnn__monomial *m = r->term[t].type;
        const eqnn__solution *s = eqnn__solve(m);
        size_t n = (size_t)m->dim, S = (size_t)m->field, rank = (size_t)s->rank;
        for (size_t k = 0; s->orbit && k < n; k++) {
            size_t q = row + (size_t)s->orbit[k];
            Q[(q * size + (size_t)r->term[t].place[k]) * F] =
                1 / sqrt((double)s->orbit_size[s->orbit[k]]);
        }
        for (size_t i = 0; !s->orbit && i < rank * n; i++)
            for (size_t p = 0; p < S; p++)
                Q[((row + i / n) * size + (size_t)r->term[t].place[i % n]) * F + p] =
                    s->Q[i * S + p];
        row += rank;
    }
    return 1;
}

/* x[n], of F numbers each, becomes sum over q of Q_q <Q_q, x>. */
static void eqnn__solution_project(const eqnn__monomial *m, const eqnn__solution *s, size_t F,
                                   double *x, double *y, double *sums)
{
    size_t n = (size_t)m->dim, S = (size_t)m->field;
    memset(y, 0, n * F * sizeof *y);
    if (s->orbit) {
        memset(sums, 0, (size_t)s->rank * F * sizeof *sums);
        for (size_t i = 0; i < n * F; i++) sums[(size_t)s->orbit[i / F] * F + i % F] += x[i];
        for (size_t i = 0; i < n * F; i++) {
            size_t q = (size_t)s->orbit[i / F];
            y[i] = sums[q * F + i % F] / s->orbit_size[q];
        }
    }
    for (size_t q = 0; !s->orbit && q < (size_t)s->rank; q++) {
        const double *Q = s->Q + q * n * S;
        double re = 0, im = 0;
        for (size_t k = 0; k < n; k++) {
            double a = Q[k * S], b = S == 2 ? Q[k * S + 1] : 0, u = x[k * F],
                   v = F == 2 ? x[k * F + 1] : 0;
            re += a * u + b * v;
            im += a * v - b * u;
        }
        for (size_t k = 0; k < n; k++) {
            double a = Q[k * S], b = S == 2 ? Q[k * S + 1] : 0;
            y[k * F] += a * re - b * im;
            if (F == 2) y[k * F + 1] += a * im + b * re;
        }
    }
    memcpy(x, y, n * F * sizeof *x);
}

EQNN_API int eqnn_basis_project(const eqnn_rep *r, double *v)
{
    eqnn__space w;
    if (eqnn_basis_dim(r) < 0) return 0;
    if (!v && r->size) {
        eqnn__fail(r->ctx, "basis_project: %s: the vector is missing (NULL)", r->name);
        return 0;
    }
    size_t F = (size_t)r->field;
    eqnn__space_begin(&w, r->ctx, 0, "basis_project");
    double *x = eqnn__space_doubles(&w, (size_t)r->size + 1, 3 * F);
    for (int t = 0; x && t < r->terms; t++) {
        const eqnn__monomial *m = r->term[t].type;
        const int *place = r->term[t].place;
        size_t n = (size_t)m->dim;
        for (size_t i = 0; i < n * F; i++) x[i] = v[(size_t)place[i / F] * F + i % F];
        eqnn__solution_project(m, eqnn__solve(m), F, x, x + n * F, x + 2 * n * F);
        for (size_t i = 0; i < n * F; i++) v[(size_t)place[i / F] * F + i % F] = x[i];
    }
    eqnn__space_back(&w, NULL);
    return x != NULL;
}

/* Columns in the order in which elimination meets them. */
typedef struct eqnn__column {
    double size;
    size_t at;
} eqnn__column;

static int eqnn__column_compare(const void *a, const void *b)
{
    const eqnn__column *x = (const eqnn__column *)a, *y = (const eqnn__column *)b;
    if (x->size < y->size || x->size > y->size) return x->size < y->size ? -1 : 1;
    return x->at < y->at ? -1 : x->at > y->at;
}

/* Gauss-Jordan elimination: in the column of a row's pivot, 1, the other rows have 0. Whole numbers
   are freed of rounding errors. How many numbers are not zero. */
static size_t eqnn__echelon(int f, size_t rank, size_t n, const eqnn__column *order, double *Q)
{
    size_t w = n * (size_t)f, k = 0, filled = 0;
    for (size_t c = 0; c < n && k < rank; c++) {
        double most = 0, m[2] = { 0, 0 };
        size_t best = k, col = order[c].at * (size_t)f;
        for (size_t i = k; i < rank; i++) {
            const double *a = Q + i * w + col;
            double size = a[0] * a[0] + (f == 2 ? a[f - 1] * a[f - 1] : 0);
            if (size > most) { most = size; best = i; }
        }
        if (most < 1e-14) continue;
        double *row = Q + k * w;
        eqnn__swap_doubles(w, row, Q + best * w, 1);
        eqnn__row_times(f, w, row, row[col] / most, f == 2 ? -row[col + 1] / most : 0);
        for (size_t i = 0; i < rank; i++) {
            for (int j = 0; j < f; j++) m[j] = Q[i * w + col + (size_t)j];
            if (i != k) eqnn__row_less(f, w, Q + i * w, row, m);
        }
        k++;
    }
    for (size_t i = 0; i < rank * w; i++) {
        double whole = floor(Q[i] + 0.5);
        if (fabs(Q[i] - whole) < 1e-7) Q[i] = whole + 0.0;
        filled += Q[i] < 0 || Q[i] > 0;
    }
    return filled;
}

/* Components that few basis vectors share are met first, which leaves most zeros as a rule; or all
   in their order, where that leaves more. */
EQNN_API int eqnn_basis_sparse(const eqnn_rep *r, double *Q)
{
    if (!eqnn_basis_dense(r, Q)) return 0;
    eqnn_ctx *c = r->ctx;
    size_t rank = (size_t)eqnn_basis_dim(r), n = (size_t)r->size, w = n * (size_t)r->field;
    if (!rank) return 1;
    double *other = (double *)eqnn__take(c, rank * w, sizeof *other);
    eqnn__column *order = (eqnn__column *)eqnn__take(c, n, sizeof *order);
    if (other && order) {
        memcpy(other, Q, rank * w * sizeof *Q);
        for (size_t j = 0; j < n; j++) order[j].at = j;
        size_t filled = eqnn__echelon(r->field, rank, n, order, other);
        for (size_t i = 0; i < rank * w; i++) order[i % w / (size_t)r->field].size += Q[i] * Q[i];
        for (size_t j = 0; j < n; j++) order[j].size = floor(order[j].size * 1e6 + 0.5);
        qsort(order, n, sizeof *order, eqnn__column_compare);
        if (eqnn__echelon(r->field, rank, n, order, Q) > filled)
            memcpy(Q, other, rank * w * sizeof *Q);
    }
    eqnn__drop(c, order, n, sizeof *order);
    eqnn__drop(c, other, rank * w, sizeof *other);
    return !c->failed;
}

/* The groups of a representation, "O(3) and S(5)", into text. */
static void eqnn__rep_groups(const eqnn_rep *r, char *text, size_t room)
{
    const eqnn_group *groups[8];
    int n = eqnn_rep_groups(r, groups, 8);
    text[0] = 0;
    for (int i = 0; i < n; i++) {
        size_t used = strlen(text);
        snprintf(text + used, room - used, "%s%.60s", i ? " and " : "", groups[i]->name);
    }
}

EQNN_API const char *eqnn_basis_explain(const eqnn_rep *r)
{
    char text[1024], groups[600];
    int64_t dim = eqnn_basis_dim(r);
    if (dim < 0) return NULL;
    if (dim == 0) {
        eqnn__rep_groups(r, groups, sizeof groups);
        snprintf(text, sizeof text,
                 "dimension 0 of %d: no vector of %.200s but zero is left fixed by %.300s; a map "
                 "of this kind is zero. Hidden representations of higher rank, as V**2, may carry "
                 "what these cannot.",
                 r->size, r->name, groups[0] ? groups : "its groups");
        return eqnn__keep_string(r->ctx, text);
    }
    snprintf(text, sizeof text, "dimension %lld of %d:", (long long)dim, r->size);
    for (int t = 0, copies = 1; t < r->terms; t += copies) {
        const eqnn__monomial *m = r->term[t].type;
        size_t used = strlen(text);
        for (copies = 1; t + copies < r->terms && r->term[t + copies].type == m;) copies++;
        if (used + 200 > sizeof text) continue;
        snprintf(text + used, sizeof text - used, "%s %d x %.80s of %lld (%s)", t ? "," : "",
                 copies, m->factors ? m->name : "scalar", (long long)m->solution->rank,
                 m->solution->method);
    }
    return eqnn__keep_string(r->ctx, text);
}

/* ------------------------------------------------------------------------------------------------
   5 >>emlp
   ---------------------------------------------------------------------------------------------- */

/* 1, or 0 and an error where an option is set that nothing reads: set, its name, in which setting,
   and what it is for. */
static int eqnn__no_use(eqnn_ctx *c, const char *op, int set, const char *option,
                        const char *setting, const char *what)
{
    if (set)
        eqnn__fail(c, "%s: %s is set, but of no use %s: it is %s", op, option, setting, what);
    return !set;
}

/* All maps from one block of columns to another. */
typedef struct eqnn__rep_pair {
    int s, t;                  /* blocks of the labels in and out                           */
    int rank;                  /* maps there are                                            */
    eqnn_tensor *Q;            /* [dt ds, rank], columns of squared length dt; lasts        */
    eqnn_ints *in, *back;      /* rows (component of t, copy of t, component of s) taken from rows
                                  (component of t, component of s, copy of t), and back     */
} eqnn__rep_pair;

/* What a linear map between two labels needs. */
typedef struct eqnn__rep_maps {
    const eqnn_label *in, *out;
    eqnn__rep_pair *pair;      /* [out->blocks * in->blocks], t outermost                   */
    eqnn_tensor **fixed;       /* [out->blocks] fixed vectors [dt, rank], or NULL           */
    eqnn_init *init;           /* [out->blocks] of the weights                              */
    struct eqnn__rep_maps *next;
} eqnn__rep_maps;

/* The monomial without factors: a scalar, whose type in labels is 0e. */
static const eqnn__monomial *eqnn__rep_scalar(eqnn_ctx *c)
{
    return eqnn__groups_of(c) ? eqnn__monomial_of(c, NULL, 0) : NULL;
}

static const eqnn__monomial *eqnn__rep_type(eqnn_ctx *c, const eqnn_label *a, int block)
{
    const eqnn_type *t = a->block[block].type;
    return t->kind == EQNN_TYPE_REP ? (const eqnn__monomial *)t->user : eqnn__rep_scalar(c);
}

/* One copy of a monomial. */
static const eqnn_rep *eqnn__rep_single(const eqnn__monomial *m)
{
    eqnn__expr e;
    if (!m || !eqnn__expr_open(m->ctx, &e, m->dim, 1)) return NULL;
    e.type[0] = m;
    for (int k = 0; k < m->dim; k++) e.place[k] = k;
    return eqnn__rep_of(&e, m->name, m->factors ? m->factor[0]->group : NULL);
}

/* Is this a label of representations (of real groups) of ours? */
static int eqnn__rep_label_fits(eqnn_ctx *c, const eqnn_label *a, const char *op)
{
    if (!a) {
        eqnn__fail(c, "%s: the label is missing (NULL)", op);
        return 0;
    }
    if (!eqnn__label_at_home(c, a, op)) return 0;
    for (int i = 0; i < a->blocks; i++) {
        const eqnn_type *t = a->block[i].type;
        if (t->kind == EQNN_TYPE_REP || (t->kind == EQNN_TYPE_IRREP && t->l == 0 && t->p == 1))
            continue;
        eqnn__fail(c, "%s: %s is no label of representations; eqnn_rep_label makes them", op,
                   a->name);
        return 0;
    }
    return 1;
}

/* Columns without a label are scalars. */
static const eqnn_label *eqnn__rep_label_of(eqnn_tensor *x, const char *op)
{
    const eqnn_label *a = x->label;
    if (eqnn__invariant(a)) a = eqnn_rep_label(eqnn_rep_scalars(x->ctx, x->cols));
    return a && eqnn__rep_label_fits(x->ctx, a, op) ? a : NULL;
}

/* One copy of the maps from type s to type t, and how many of them are equivariant. */
static const eqnn_rep *eqnn__rep_maps_of(const eqnn__monomial *s, const eqnn__monomial *t,
                                         int *rank)
{
    const eqnn_rep *from = eqnn__rep_single(s), *to = eqnn__rep_single(t);
    const eqnn_rep *map = from && to ? eqnn_rep_map(from, to) : NULL;
    int64_t r = map ? eqnn_basis_dim(map) : -1;
    *rank = r > INT_MAX ? -1 : (int)r;
    return *rank < 0 ? NULL : map;
}

/* The basis of r as columns [size, rank] of squared length `square`; lasts. */
static eqnn_tensor *eqnn__rep_vectors(eqnn_ctx *c, const eqnn_rep *r, int rank, double square)
{
    size_t n = (size_t)r->size, count = n * (size_t)rank * sizeof(double);
    double *Q = (double *)eqnn__heap(c, NULL, 0, count);
    double *T = Q ? (double *)eqnn__heap(c, NULL, 0, count) : NULL;
    eqnn_tensor *columns = NULL;
    if (T && eqnn_basis_dense(r, Q)) {
        for (size_t k = 0; k < (size_t)rank; k++)
            for (size_t i = 0; i < n; i++) T[i * (size_t)rank + k] = sqrt(square) * Q[k * n + i];
        columns = eqnn_keep(eqnn_from_double(c, r->size, rank, T));
    }
    eqnn__heap_free(c, T, count);
    eqnn__heap_free(c, Q, count);
    return columns;
}

/* Rows of weights: from order (i, j, v) to order (i, v, j) for i < a, j < b, v < n. */
static eqnn_ints *eqnn__rep_swap(eqnn_ctx *c, int a, int b, int n)
{
    size_t count = (size_t)a * (size_t)b * (size_t)n;
    if (count > INT_MAX) {
        eqnn__fail(c, "rep_linear: a weight of %zu rows is too large", count);
        return NULL;
    }
    int *row = (int *)eqnn__temp(c, count, sizeof *row), *at = row;
    for (int i = 0; row && i < a; i++)
        for (int v = 0; v < n; v++)
            for (int j = 0; j < b; j++) *at++ = (i * b + j) * n + v;
    return row ? eqnn_ints_make(c, (int)count, row, (int)count, 1) : NULL;
}

static int eqnn__rep_pair_fill(eqnn_ctx *c, eqnn__rep_pair *p, const eqnn_label *in,
                               const eqnn_label *out)
{
    const eqnn_block *s = &in->block[p->s], *t = &out->block[p->t];
    int ds = s->type->dim, dt = t->type->dim;
    const eqnn_rep *map =
        eqnn__rep_maps_of(eqnn__rep_type(c, in, p->s), eqnn__rep_type(c, out, p->t), &p->rank);
    if (!map) return 0;
    if (!p->rank) return 1;
    p->Q = eqnn__rep_vectors(c, map, p->rank, dt);
    p->in = eqnn__rep_swap(c, dt, ds, t->copies);
    p->back = eqnn__rep_swap(c, dt, t->copies, ds);
    return p->Q && p->in && p->back;
}

/* Weights start with the variance that gives y the variance of x: one over the number of terms. */
static int eqnn__rep_maps_fill(eqnn_ctx *c, eqnn__rep_maps *m)
{
    for (int t = 0; t < m->out->blocks; t++) {
        double terms = 0;
        int rank;
        for (int s = 0; s < m->in->blocks; s++) {
            eqnn__rep_pair *p = &m->pair[t * m->in->blocks + s];
            p->s = s;
            p->t = t;
            if (!eqnn__rep_pair_fill(c, p, m->in, m->out)) return 0;
            terms += (double)m->in->block[s].copies * p->rank;
        }
        m->init[t].kind = EQNN_INIT_NORMAL;
        m->init[t].scale = terms > 0 ? 1 / sqrt(terms) : 1;
        const eqnn__monomial *type = eqnn__rep_type(c, m->out, t), *one = eqnn__rep_scalar(c);
        const eqnn_rep *fixed = one ? eqnn__rep_maps_of(one, type, &rank) : NULL;
        if (!fixed) return 0;
        if (rank && !(m->fixed[t] = eqnn__rep_vectors(c, fixed, rank, type->dim))) return 0;
    }
    return 1;
}

static const eqnn__rep_maps *eqnn__rep_maps_find(eqnn_ctx *c, const eqnn_label *in,
                                                 const eqnn_label *out)
{
    eqnn__groups *all = eqnn__groups_of(c);
    if (!all) return NULL;
    for (eqnn__rep_maps *m = all->maps; m; m = m->next)
        if (m->in == in && m->out == out) return m;
    size_t n = (size_t)out->blocks;
    eqnn__rep_maps *m = (eqnn__rep_maps *)eqnn__keep_alloc(c, sizeof *m);
    if (!m) return NULL;
    m->in = in;
    m->out = out;
    m->pair = (eqnn__rep_pair *)eqnn__keep_alloc(c, n * (size_t)in->blocks * sizeof *m->pair);
    m->fixed = (eqnn_tensor **)eqnn__keep_alloc(c, n * sizeof *m->fixed);
    m->init = (eqnn_init *)eqnn__keep_alloc(c, n * sizeof *m->init);
    if (!m->pair || !m->fixed || !m->init || !eqnn__rep_maps_fill(c, m)) return NULL;
    m->next = all->maps;
    return all->maps = m;
}

/* --- the weights --- */

/* W_ts [dt copies_t, ds copies_s] from one column of numbers for each entry of the small matrices:
   E [dt ds, copies_t copies_s]; and back. */
static eqnn_tensor *eqnn__rep_spread(eqnn_tensor *E, const eqnn__rep_pair *p, const eqnn_block *s,
                                     const eqnn_block *t)
{
    int dt = t->type->dim, ds = s->type->dim;
    E = eqnn_take(eqnn_reshape(E, dt * ds * t->copies, s->copies), p->in);
    return eqnn_reshape(E, dt * t->copies, ds * s->copies);
}

static eqnn_tensor *eqnn__rep_gather(eqnn_tensor *W, const eqnn__rep_pair *p, const eqnn_block *s,
                                     const eqnn_block *t)
{
    int dt = t->type->dim, ds = s->type->dim;
    W = eqnn_take(eqnn_reshape(W, dt * t->copies * ds, s->copies), p->back);
    return eqnn_reshape(W, dt * ds, t->copies * s->copies);
}

/* From coefficients: E = Q w. From any matrix: E = Q Q^T of it, over the squared length of the
   columns. */
static eqnn_tensor *eqnn__rep_block(eqnn_ctx *c, const eqnn__rep_maps *m, const eqnn__rep_pair *p,
                                    eqnn_tensor *whole)
{
    const eqnn_block *s = &m->in->block[p->s], *t = &m->out->block[p->t];
    int dt = t->type->dim, rows = dt * t->copies, cols = s->type->dim * s->copies;
    if (!p->rank) return eqnn_zeros(c, rows, cols);
    if (!whole) {
        eqnn_tensor *w = eqnn_param(c, eqnn_format(c, "weight.%d.%d", p->t, p->s), p->rank,
                                    t->copies * s->copies, &m->init[p->t]);
        return eqnn__rep_spread(eqnn_matmul(p->Q, w), p, s, t);
    }
    eqnn_tensor *W = eqnn_slice(eqnn_slice_rows(whole, t->start, rows), s->start, cols);
    eqnn_tensor *w = eqnn_matmul_t(p->Q, eqnn__rep_gather(W, p, s, t), 1, 0);
    return eqnn__rep_spread(eqnn_matmul(p->Q, eqnn_scale(w, 1.0 / dt)), p, s, t);
}

/* What weight and bias are made from, once a step. */
typedef struct eqnn__rep_recipe { const eqnn__rep_maps *m; int projected; } eqnn__rep_recipe;

/* W [out, in] */
static eqnn_tensor *eqnn__rep_weight(eqnn_ctx *c, const void *user)
{
    const eqnn__rep_recipe *r = (const eqnn__rep_recipe *)user;
    const eqnn__rep_maps *m = r->m;
    int S = m->in->blocks, T = m->out->blocks, longer = S > T ? S : T;
    eqnn_init init;
    memset(&init, 0, sizeof init);
    init.kind = EQNN_INIT_ORTHOGONAL;
    eqnn_tensor *whole =
        r->projected ? eqnn_param(c, "weight", m->out->cols, m->in->cols, &init) : NULL;
    eqnn_tensor **row = (eqnn_tensor **)eqnn__temp(c, (size_t)T, sizeof *row);
    eqnn_tensor **block = (eqnn_tensor **)eqnn__temp(c, (size_t)longer, sizeof *block);
    if (!row || !block || c->failed) return NULL;
    for (int t = 0; t < T; t++) {
        for (int s = 0; s < S; s++) block[s] = eqnn__rep_block(c, m, &m->pair[t * S + s], whole);
        row[t] = S ? eqnn_concat_n(block, S)
                   : eqnn_zeros(c, m->out->block[t].copies * m->out->block[t].type->dim, 0);
    }
    return T ? eqnn_stack(row, T) : eqnn_zeros(c, 0, m->in->cols);
}

/* b [1, out] */
static eqnn_tensor *eqnn__rep_bias(eqnn_ctx *c, const void *user)
{
    const eqnn__rep_maps *m = ((const eqnn__rep_recipe *)user)->m;
    int projected = ((const eqnn__rep_recipe *)user)->projected;
    int T = m->out->blocks;
    eqnn_init init;
    memset(&init, 0, sizeof init);
    eqnn_init_part half[2];
    int from = projected ? m->out->cols : m->in->cols;
    init.kind = EQNN_INIT_UNIFORM;
    init.scale = 1 / sqrt(from > 0 ? from : 1.0);
    memset(half, 0, sizeof half);
    half[0].count = m->out->cols, half[0].scale = 0.5, half[0].shift = init.scale / 2;
    if (projected) init.parts = half; /* the paper's code has no negative ones */
    eqnn_tensor *whole = projected ? eqnn_param(c, "bias", 1, m->out->cols, &init) : NULL;
    eqnn_tensor **part = (eqnn_tensor **)eqnn__temp(c, (size_t)T, sizeof *part);
    if (!part || c->failed) return NULL;
    for (int t = 0; t < T; t++) {
        const eqnn_block *k = &m->out->block[t];
        int d = k->type->dim, cols = d * k->copies;
        eqnn_tensor *Q = m->fixed[t], *w;
        if (!Q) {
            part[t] = eqnn_zeros(c, 1, cols);
            continue;
        }
        if (projected) {
            w = eqnn_reshape(eqnn_slice(whole, k->start, cols), d, k->copies);
            w = eqnn_scale(eqnn_matmul_t(Q, w, 1, 0), 1.0 / d);
        } else {
            w = eqnn_param(c, eqnn_format(c, "bias.%d", t), Q->cols, k->copies, &init);
        }
        part[t] = eqnn_reshape(eqnn_matmul(Q, w), 1, cols);
    }
    return T ? eqnn_concat_n(part, T) : eqnn_zeros(c, 1, 0);
}

EQNN_API eqnn_tensor *eqnn_rep_linear(eqnn_tensor *x, const char *name, const eqnn_label *out,
                                      const eqnn_rep_linear_opts *opts)
{
    eqnn_rep_linear_opts o;
    memset(&o, 0, sizeof o);
    if (opts) o = *opts;
    if (eqnn__bad(x, "rep_linear") || !eqnn__rep_label_fits(x->ctx, out, "rep_linear")) return NULL;
    eqnn_ctx *c = x->ctx;
    const eqnn_label *in = eqnn__rep_label_of(x, "rep_linear");
    const eqnn__rep_maps *m = in ? eqnn__rep_maps_find(c, in, out) : NULL;
    x = m ? eqnn_enter(eqnn__bare(x), name) : NULL;
    if (!x) return NULL;
    eqnn__rep_recipe r = { m, o.projected };
    const void *id = m; /* the same name with other labels is another matrix */
    eqnn_tensor *W = eqnn_once(c, eqnn_format(c, "W %p", id), eqnn__rep_weight, &r);
    eqnn_tensor *y = eqnn_matmul_t(x, W, 0, 1);
    if (!o.no_bias)
        y = eqnn_add(y, eqnn_once(c, eqnn_format(c, "b %p", id), eqnn__rep_bias, &r));
    return eqnn__tag(eqnn_leave(y), out);
}

/* --- features times features --- */

/* One term y_t = sum theta X_j x_s. For each row it is a product of small matrices; theta comes
   first where that leaves fewer numbers:

       theta first   T [ds j, copies_t] = theta x_s        y_t [dt, copies_t] = X [dt, ds j] T
       theta last    U [dt j, copies_s] = X [dt j, ds] x_s  y_t = theta U */
typedef struct eqnn__rep_term {
    int s, t, block;           /* of x, of y, of X                                              */
    int copies, first;         /* j; is theta first?                                            */
    eqnn_ints *X;              /* columns of block R: (dt, ds, j) or (dt, j, ds)                */
    eqnn_ints *turn;           /* columns (copy of s, copy of t) of theta [j, (t, s)]           */
    const void *plan;          /* product of the small matrices of each row                     */
} eqnn__rep_term;

typedef struct eqnn__rep_products {
    const eqnn_label *in, *out;
    uint64_t choice;           /* hash of the copies that serve                                 */
    int terms;
    eqnn__rep_term *term;
    eqnn_init *init;           /* [out->blocks] of theta                                        */
    struct eqnn__rep_products *next;
} eqnn__rep_products;

static int eqnn__rep_block_of(const eqnn_label *a, const eqnn_type *type)
{
    for (int i = 0; i < a->blocks; i++)
        if (a->block[i].type == type) return i;
    return -1;
}

/* How many copies of a type serve: more than it has components would be no use. */
static int eqnn__rep_serving(const eqnn_block *k)
{
    return k->copies < k->type->dim ? k->copies : k->type->dim;
}

/* Columns of X for the maps [dt][ds] of one copy each; place: where component k of their type is
   in that matrix. */
static eqnn_ints *eqnn__rep_X(eqnn_ctx *c, const eqnn_label *in, const eqnn__rep_term *q, int dt,
                              int ds, const int *place, const int *serving)
{
    const eqnn_block *R = &in->block[q->block];
    int J = q->copies, n = dt * ds * J;
    int *col = (int *)eqnn__temp(c, (size_t)n, sizeof *col);
    if (!col) return NULL;
    for (int k = 0; k < dt * ds; k++)
        for (int j = 0; j < J; j++) {
            int b = place[k] / ds, a = place[k] % ds;
            int to = q->first ? (b * ds + a) * J + j : (b * J + j) * ds + a;
            col[to] = k * R->copies + serving[j] - 1;
        }
    return eqnn_ints_make(c, n, col, R->type->dim * R->copies, 1);
}

/* A [d, U] times B [U, V] for every row, as one block of a mix form. */
static const void *eqnn__rep_small_plan(eqnn_ctx *c, int d, int U, int V)
{
    eqnn__mix_block b;
    memset(&b, 0, sizeof b);
    b.d = d;
    b.U = U;
    b.V = V;
    b.xs = U;
    b.gs = V;
    b.scale = 1;
    return eqnn__mix_plan(c, &b, 1);
}

static int eqnn__rep_term_fill(eqnn_ctx *c, eqnn__rep_term *q, const eqnn_label *in,
                               const eqnn_label *out, const int *place, const int *serving)
{
    const eqnn_block *s = &in->block[q->s], *t = &out->block[q->t];
    int ds = s->type->dim, dt = t->type->dim, J = q->copies;
    q->first = (int64_t)ds * t->copies <= (int64_t)dt * s->copies;
    q->X = eqnn__rep_X(c, in, q, dt, ds, place, serving);
    q->plan = q->first ? eqnn__rep_small_plan(c, dt, ds * J, t->copies)
                       : eqnn__rep_small_plan(c, dt * J, ds, s->copies);
    if (q->first) return q->X && q->plan;
    int n = t->copies * s->copies;
    int *col = (int *)eqnn__temp(c, (size_t)n, sizeof *col);
    for (int i = 0; col && i < n; i++) col[i] = i % t->copies * s->copies + i / t->copies;
    q->turn = col ? eqnn_ints_make(c, n, col, n, 1) : NULL;
    return q->X && q->plan && q->turn;
}

/* Features of variance 1 give products of variance 1: one over the number of summands. */
static int eqnn__rep_products_init(eqnn_ctx *c, eqnn__rep_products *m)
{
    m->init = (eqnn_init *)eqnn__keep_alloc(c, (size_t)m->out->blocks * sizeof *m->init);
    for (int t = 0; m->init && t < m->out->blocks; t++) {
        double summands = 0;
        for (int i = 0; i < m->terms; i++) {
            const eqnn_block *s = &m->in->block[m->term[i].s];
            if (m->term[i].t == t)
                summands += (double)m->term[i].copies * s->copies * s->type->dim;
        }
        m->init[t].kind = EQNN_INIT_NORMAL;
        m->init[t].scale = summands > 0 ? 1 / sqrt(summands) : 1;
    }
    return m->init != NULL;
}

/* All terms; serving[b]: the copies of block b that serve, counted from 1. */
static int eqnn__rep_products_fill(eqnn_ctx *c, eqnn__rep_products *m, int *const *serving)
{
    const eqnn_label *in = m->in, *out = m->out;
    size_t most = (size_t)in->blocks * (size_t)out->blocks;
    m->term = (eqnn__rep_term *)eqnn__keep_alloc(c, most * sizeof *m->term);
    for (int i = 0; m->term && i < (int)most; i++) {
        eqnn__rep_term *q = &m->term[m->terms];
        q->t = i / in->blocks;
        q->s = i % in->blocks;
        const eqnn_rep *from = eqnn__rep_single(eqnn__rep_type(c, in, q->s));
        const eqnn_rep *map = eqnn_rep_map(from, eqnn__rep_single(eqnn__rep_type(c, out, q->t)));
        if (!map) return 0;
        q->block = eqnn__rep_block_of(in, map->term[0].type->type);
        if (q->block < 0 || !map->term[0].type->factors) continue;
        q->copies = eqnn__rep_serving(&in->block[q->block]);
        if (!q->copies) continue;
        if (!eqnn__rep_term_fill(c, q, in, out, map->term[0].place, serving[q->block])) return 0;
        m->terms++;
    }
    return m->term && eqnn__rep_products_init(c, m);
}

/* The copies that serve, from the buffers that keep them; evenly spaced at first. */
static int **eqnn__rep_choice(eqnn_ctx *c, const eqnn_label *in, uint64_t *hash)
{
    int **serving = (int **)eqnn__temp(c, (size_t)in->blocks, sizeof *serving);
    for (int b = 0; serving && b < in->blocks; b++) {
        const eqnn_block *k = &in->block[b];
        int n = eqnn__rep_serving(k);
        serving[b] = (int *)eqnn__temp(c, (size_t)n + 1, sizeof(int));
        if (!serving[b]) return NULL;
        if (!n || !eqnn__rep_type(c, in, b)->factors) continue;
        eqnn_tensor *kept = eqnn_buffer(c, eqnn_format(c, "copies.%d", b), 1, n, NULL);
        double *first = (double *)eqnn__temp(c, (size_t)n, sizeof *first);
        if (!kept || !first) return NULL;
        for (int j = 0; j < n; j++) first[j] = 1 + (int)((int64_t)j * k->copies / n);
        const eqnn_real *v = eqnn__buffer_here(kept);
        if (v && *v == 0 && eqnn_set(kept, first)) v = eqnn__buffer_here(kept);
        if (!v || c->failed) return NULL;
        for (int j = 0; j < n; j++) {
            serving[b][j] = (int)v[j];
            if (serving[b][j] >= 1 && serving[b][j] <= k->copies) continue;
            eqnn__fail(c, "rep_bilinear: copies.%d names copy %d of %d", b, serving[b][j],
                       k->copies);
            return NULL;
        }
        *hash = eqnn__hash(*hash, serving[b], (size_t)n * sizeof(int));
    }
    return serving;
}

static const eqnn__rep_products *eqnn__rep_products_find(eqnn_ctx *c, const eqnn_label *in,
                                                         const eqnn_label *out)
{
    eqnn__groups *all = eqnn__groups_of(c);
    uint64_t hash = EQNN__HASH;
    int **serving = all ? eqnn__rep_choice(c, in, &hash) : NULL;
    if (!serving) return NULL;
    for (eqnn__rep_products *m = all->products; m; m = m->next)
        if (m->in == in && m->out == out && m->choice == hash) return m;
    eqnn__rep_products *m = (eqnn__rep_products *)eqnn__keep_alloc(c, sizeof *m);
    if (!m) return NULL;
    m->in = in;
    m->out = out;
    m->choice = hash;
    if (!eqnn__rep_products_fill(c, m, serving)) return NULL;
    m->next = all->products;
    return all->products = m;
}

/* A [rows, d U] times B [rows, U V], row by row -> [rows, d V] */
static eqnn_tensor *eqnn__rep_small(eqnn_tensor *A, eqnn_tensor *B, int cols, const void *plan)
{
    eqnn__form f;
    if (!A || !B) return NULL;
    eqnn_tensor *v[EQNN__SLOTS] = {A, B, NULL};
    eqnn__form_start(&f, EQNN__MIX, 3, A->rows, plan);
    eqnn__slot(&f, 0, EQNN__EACH, A->rows, A->cols);
    eqnn__slot(&f, 1, EQNN__EACH, A->rows, B->cols);
    eqnn__slot(&f, 2, EQNN__EACH, A->rows, cols);
    return eqnn__form_value(A->ctx, &f, v, 2);
}

/* R, xs: the blocks of x that X and the argument are in */
static eqnn_tensor *eqnn__rep_term_value(eqnn_tensor *R, eqnn_tensor *xs, const eqnn__rep_term *q,
                                         const eqnn_block *s, const eqnn_block *t,
                                         const eqnn_init *init)
{
    if (!R || !xs) return NULL;
    eqnn_ctx *c = xs->ctx;
    int N = xs->rows, ds = s->type->dim, dt = t->type->dim, J = q->copies, S = s->copies,
        T = t->copies;
    eqnn_tensor *theta =
        eqnn_param(c, eqnn_format(c, "theta.%d.%d", q->t, q->s), J * T, S, init);
    eqnn_tensor *X = eqnn_columns(R, q->X);
    if (q->first) {
        xs = eqnn_matmul_t(eqnn_reshape(xs, N * ds, S), theta, 0, 1);
        return eqnn__rep_small(X, eqnn_reshape(xs, N, ds * J * T), dt * T, q->plan);
    }
    eqnn_tensor *U = eqnn__rep_small(X, xs, dt * J * S, q->plan);
    theta = eqnn_reshape(eqnn_columns(eqnn_reshape(theta, J, T * S), q->turn), J * S, T);
    return eqnn_reshape(eqnn_matmul(eqnn_reshape(U, N * dt, J * S), theta), N, dt * T);
}

/* gain: what the first weights are multiplied with */
static eqnn_tensor *eqnn__rep_bilinear(eqnn_tensor *x, const char *name, const eqnn_label *out,
                                       const eqnn_init *init, double gain)
{
    if (eqnn__bad(x, "rep_bilinear") || !eqnn__rep_label_fits(x->ctx, out, "rep_bilinear"))
        return NULL;
    eqnn_ctx *c = x->ctx;
    const eqnn_label *in = eqnn__rep_label_of(x, "rep_bilinear");
    x = in ? eqnn_enter(eqnn__bare(x), name) : NULL;
    const eqnn__rep_products *m = x ? eqnn__rep_products_find(c, in, out) : NULL;
    eqnn_tensor **part = (eqnn_tensor **)eqnn__temp(c, (size_t)out->blocks, sizeof *part);
    eqnn_tensor **block =
        in ? (eqnn_tensor **)eqnn__temp(c, (size_t)in->blocks, sizeof *block) : NULL;
    if (!m || !part || !block) return NULL;
    for (int t = 0; t < out->blocks; t++) part[t] = NULL;
    for (int s = 0; s < in->blocks; s++)
        block[s] = eqnn_slice(x, in->block[s].start, in->block[s].type->dim * in->block[s].copies);
    for (int i = 0; i < m->terms; i++) {
        const eqnn__rep_term *q = &m->term[i];
        eqnn_init start = init ? *init : m->init[q->t];
        start.scale *= gain;
        eqnn_tensor *y = eqnn__rep_term_value(block[q->block], block[q->s], q, &in->block[q->s],
                                              &out->block[q->t], &start);
        part[q->t] = part[q->t] ? eqnn_add(part[q->t], y) : y;
    }
    for (int t = 0; t < out->blocks; t++)
        if (!part[t])
            part[t] = eqnn_zeros(c, x->rows, out->block[t].copies * out->block[t].type->dim);
    eqnn_tensor *y = out->blocks ? eqnn_concat_n(part, out->blocks) : eqnn_zeros(c, x->rows, 0);
    return eqnn__tag(eqnn_leave(y), out);
}

EQNN_API eqnn_tensor *eqnn_rep_bilinear(eqnn_tensor *x, const char *name, const eqnn_label *out,
                                        const eqnn_init *init)
{
    return eqnn__rep_bilinear(x, name, out, init, 1);
}

/* --- gates --- */

/* Do entries of this type go through functions of one number by themselves? Scalars (0e) and
   permutation representations, which say so in p. */
static int eqnn__rep_pointwise(const eqnn_block *k) { return k->type->p == 1; }

static int eqnn__rep_gates(const eqnn_label *a)
{
    int gates = 0;
    for (int i = 0; i < a->blocks; i++)
        if (!eqnn__rep_pointwise(&a->block[i])) gates += a->block[i].copies;
    return gates;
}

EQNN_API const eqnn_label *eqnn_rep_gated(eqnn_ctx *c, const eqnn_label *label)
{
    if (!c || c->failed || !eqnn__rep_label_fits(c, label, "rep_gated")) return NULL;
    int gates = eqnn__rep_gates(label), n = 0;
    const eqnn__monomial *one = eqnn__rep_scalar(c);
    eqnn_block *block = (eqnn_block *)eqnn__temp(c, (size_t)label->blocks + 1, sizeof *block);
    if (!gates) return label;
    if (!one || !block) return NULL;
    if (!label->blocks || label->block[0].type != one->type) {
        memset(&block[0], 0, sizeof block[0]);
        block[0].type = one->type;
        n = 1;
    }
    for (int i = 0; i < label->blocks; i++) block[n++] = label->block[i];
    block[0].copies += gates;
    return eqnn__label(c, block, n);
}

/* out[c] = sigmoid(x[gate of c]) x[place of c]: the copy form on columns of x. */
typedef struct eqnn__rep_gate {
    const eqnn_label *out;
    eqnn__columns gates, values; /* columns of x                     */
    const void *plan;
    struct eqnn__rep_gate *next;
} eqnn__rep_gate;

/* Place and gate of every column of out, as columns of x; used marks the gates. */
static void eqnn__rep_gate_map(const eqnn_label *out, int *place, int *gate, int *used)
{
    int gates = eqnn__rep_gates(out), scalars = 0, next, col = 0;
    if (out->blocks && out->block[0].type->kind == EQNN_TYPE_IRREP) scalars = out->block[0].copies;
    next = scalars;
    for (int i = 0; i < out->blocks; i++) {
        const eqnn_block *k = &out->block[i];
        int own = eqnn__rep_pointwise(k);
        for (int m = 0; m < k->type->dim * k->copies; m++, col++) {
            place[col] = col + (col >= scalars ? gates : 0);
            gate[col] = own ? place[col] : next + m % k->copies;
            used[gate[col]] = 1;
        }
        if (!own) next += k->copies;
    }
}

static int eqnn__rep_gate_fill(eqnn_ctx *c, eqnn__rep_gate *g, int cols)
{
    int n = g->out->cols, count = 0;
    int *place = (int *)eqnn__temp(c, (size_t)n, sizeof *place);
    int *gate = (int *)eqnn__temp(c, (size_t)n, sizeof *gate);
    int *used = (int *)eqnn__temp(c, (size_t)cols, sizeof *used);
    int *list = (int *)eqnn__temp(c, (size_t)cols, sizeof *list);
    if (!place || !gate || !used || !list) return 0;
    memset(used, 0, (size_t)cols * sizeof *used);
    eqnn__rep_gate_map(g->out, place, gate, used);
    for (int i = 0; i < cols; i++) {
        if (!used[i]) continue;
        list[count] = i;
        used[i] = count++;
    }
    for (int i = 0; i < n; i++) gate[i] = used[gate[i]];
    g->plan = eqnn__copy_plan(c, gate, n);
    return g->plan && eqnn__columns_make(c, &g->gates, list, count, cols) &&
           eqnn__columns_make(c, &g->values, place, n, cols);
}

static const eqnn__rep_gate *eqnn__rep_gate_find(eqnn_ctx *c, const eqnn_label *out, int cols)
{
    eqnn__groups *all = eqnn__groups_of(c);
    if (!all) return NULL;
    for (eqnn__rep_gate *g = all->gates; g; g = g->next)
        if (g->out == out) return g;
    eqnn__rep_gate *g = (eqnn__rep_gate *)eqnn__keep_alloc(c, sizeof *g);
    if (!g) return NULL;
    g->out = out;
    if (!eqnn__rep_gate_fill(c, g, cols)) return NULL;
    g->next = all->gates;
    return all->gates = g;
}

EQNN_API eqnn_tensor *eqnn_rep_gate(eqnn_tensor *x, const eqnn_label *out)
{
    if (eqnn__bad(x, "rep_gate")) return NULL;
    eqnn_ctx *c = x->ctx;
    const eqnn_label *in = eqnn_rep_gated(c, out);
    if (!in) return NULL;
    if (x->cols != in->cols || (x->label != in && !eqnn__invariant(x->label)))
        return eqnn__fail(c, "rep_gate: x is %s [%d,%d], it must be %s", eqnn__label_text(x->label),
                          x->rows, x->cols, in->name);
    const eqnn__rep_gate *g = out->cols ? eqnn__rep_gate_find(c, out, in->cols) : NULL;
    if (!g) return c->failed ? NULL : eqnn_as(x, out);
    x = eqnn__bare(x);
    eqnn_tensor *gates = eqnn_sigmoid(eqnn__columns_take(&g->gates, x));
    eqnn_tensor *values = eqnn__columns_take(&g->values, x);
    if (!gates || !values) return NULL;
    return eqnn__tag(eqnn__copy_form(g->plan, values, gates, NULL, gates->cols, 2), out);
}

/* --- networks --- */

static eqnn_emlp_opts eqnn__emlp_defaults(const eqnn_emlp_opts *opts)
{
    eqnn_emlp_opts o;
    memset(&o, 0, sizeof o);
    if (opts) o = *opts;
    if (o.channels == 0) o.channels = 384;
    if (o.layers == 0) o.layers = 3;
    return o;
}

static eqnn_tensor *eqnn__emlp_block(eqnn_tensor *x, const char *name, const eqnn_label *out,
                                     const eqnn_emlp_opts *o)
{
    static const eqnn_init published = { EQNN_INIT_NORMAL, 1, 0, 0, NULL };
    const eqnn_init *init = o->linear.projected ? &published : NULL;
    double gain = init ? 1 : 3;
    const eqnn_label *gated = eqnn_rep_gated(x->ctx, out);
    x = gated ? eqnn_enter(x, name) : NULL;
    x = x ? eqnn_rep_linear(x, "linear", gated, &o->linear) : NULL;
    if (x && !o->no_bilinear)
        x = eqnn_add(x, eqnn_scale(eqnn__rep_bilinear(x, "bilinear", gated, init, gain),
                                   0.1 / gain));
    return eqnn_leave(eqnn_rep_gate(x, out));
}

EQNN_API eqnn_tensor *eqnn_emlp_block(eqnn_tensor *x, const char *name, const eqnn_label *out,
                                      const eqnn_emlp_opts *opts)
{
    static const char op[] = "emlp_block", one[] = "in a single block", whole[] = "of eqnn_emlp";
    eqnn_emlp_opts o = eqnn__emlp_defaults(opts);
    if (eqnn__bad(x, op)) return NULL;
    if (opts && !(eqnn__no_use(x->ctx, op, opts->channels != 0, ".channels", one, whole) &&
                  eqnn__no_use(x->ctx, op, opts->layers != 0, ".layers", one, whole) &&
                  eqnn__no_use(x->ctx, op, opts->hidden != NULL, ".hidden", one, whole) &&
                  eqnn__no_use(x->ctx, op, opts->hiddens != NULL, ".hiddens", one, whole)))
        return NULL;
    return eqnn__emlp_block(x, name, out, &o);
}

static int eqnn__group_has(const eqnn_group *g, const eqnn_group *factor)
{
    return g == factor ||
           (g->sampler == EQNN__SAMPLE_PRODUCT &&
            (eqnn__group_has(g->part[0], factor) || eqnn__group_has(g->part[1], factor)));
}

/* Hidden layers of g, or of those of its factors that occur. */
static const eqnn_rep *eqnn__emlp_hidden(const eqnn_rep *in, const eqnn_rep *out,
                                         const eqnn_group *g, int channels)
{
    const eqnn_group *list[EQNN__MIXED + 1];
    int n = eqnn_rep_groups(in, list, EQNN__MIXED + 1);
    for (int i = 0; i < out->terms; i++)
        n = eqnn__list_groups(out->term[i].type, list, n, EQNN__MIXED + 1);
    int whole = 0;
    if (!n) list[n++] = g;
    for (int i = 0; i < n; i++) {
        whole |= list[i] == g;
        if (eqnn__group_has(g, list[i])) continue;
        eqnn__fail(g->ctx, "emlp: the group is %s, and a representation is of %s, which is not "
                           "that nor a factor of it; or give .hidden", g->name, list[i]->name);
        return NULL;
    }
    if (whole && n > 1) {
        eqnn__fail(g->ctx, "emlp: V of the product %s knows nothing of its factors' V: write "
                           "V(a)*V(b)", g->name);
        return NULL;
    }
    return eqnn_rep_uniform_n(list, n, channels);
}

/* Does every type of one side take part in an equivariant map? Else it would be ignored, or
   constant. */
static int eqnn__emlp_reaches(eqnn_ctx *c, const eqnn_label *in, const eqnn_label *out, int ends)
{
    const eqnn__rep_maps *m = in && out ? eqnn__rep_maps_find(c, in, out) : NULL;
    int n = m ? ends ? out->blocks : in->blocks : 0;
    for (int i = 0; i < n; i++) {
        int k = 0, others = ends ? in->blocks : out->blocks;
        while (k < others && !m->pair[ends ? i * in->blocks + k : k * in->blocks + i].rank) k++;
        if (k < others) continue;
        eqnn__fail(c, "emlp: every equivariant map from %.200s to %.200s is zero; hidden layers of "
                   "the same groups and of other ranks (.hidden) may lead there",
                   ends ? in->name : in->block[i].type->name,
                   ends ? out->block[i].type->name : out->name);
    }
    return m && !c->failed;
}

/* The largest entry of the equivariant maps of row h [cols] to block t of out, any weights; it
   stops at the first above enough. Q: the maps of a pair, columns [dt ds, rank]. */
static double eqnn__emlp_largest(const eqnn__rep_maps *m, int t, const eqnn_real *h, double enough)
{
    double largest = 0;
    for (int b = 0; b < m->in->blocks; b++) {
        const eqnn__rep_pair *p = &m->pair[t * m->in->blocks + b];
        const eqnn_block *s = &m->in->block[b];
        const eqnn_real *Q = p->rank ? eqnn_data(p->Q) : NULL;
        size_t ds = (size_t)s->type->dim, dt = (size_t)m->out->block[t].type->dim;
        size_t rank = (size_t)p->rank, copies = (size_t)s->copies;
        for (size_t z = 0; Q && z < dt * copies * rank && largest <= enough; z++) {
            size_t i = z / rank / copies, u = z / rank % copies, k = z % rank;
            double sum = 0;
            for (size_t j = 0; j < ds; j++)
                sum += (double)Q[(i * ds + j) * rank + k] *
                       (double)h[(size_t)s->start + j * copies + u];
            if (!(fabs(sum) <= largest)) largest = fabs(sum);
        }
    }
    return largest;
}

/* Products make what linear maps alone do not reach, but not all of it: from V they make V V**2 in
   V**3, whose determinant is zero. So one generic row goes through the hidden layers: what is of
   the size of rounding errors in all maps from there (of label at) to a type of out is so whatever
   the weights of the last map. */
static int eqnn__emlp_alive(eqnn_tensor *h, const eqnn_label *at, const eqnn_label *out)
{
    eqnn_ctx *c = h->ctx;
    const eqnn__rep_maps *m = eqnn__rep_maps_find(c, at, out);
    const eqnn_real *v = m ? eqnn_data(h) : NULL;
    double size = 0, tiny = sizeof *v == 8 ? 1e-13 : 3e-7;
    for (int i = 0; v && i < h->cols; i++)
        if (!(fabs((double)v[i]) <= size)) size = fabs((double)v[i]);
    if (!(size > 0) || !(size < HUGE_VAL)) return !c->failed; /* weights that say nothing */
    for (int t = 0; t < out->blocks && !c->failed; t++) {
        if (eqnn__emlp_largest(m, t, v, tiny * size) > tiny * size) continue;
        eqnn__fail(c, "emlp: %.200s of the output would be zero for any input: products of these "
                      "hidden layers do not lead there; raise .channels, or give .hidden "
                      "representations of higher ranks, as V**4, unless the symmetry forbids any "
                      "answer but zero", out->block[t].type->name);
    }
    return !c->failed;
}

/* Hidden layers one after the other; at: the last one's label. */
static eqnn_tensor *eqnn__emlp_blocks(eqnn_tensor *x, const eqnn_emlp_opts *o,
                                      const eqnn_label **at)
{
    for (int i = 0; i < o->layers; i++) {
        if (o->hiddens) *at = eqnn_rep_label(o->hiddens[i]);
        x = x ? eqnn__emlp_block(x, eqnn_format(x->ctx, "network.%d", i), *at, o) : NULL;
    }
    return x;
}

/* Networks that were tried, by scope and sizes. */
typedef struct eqnn__emlp_seen {
    uint64_t key;
    struct eqnn__emlp_seen *next;
} eqnn__emlp_seen;

/* Once for each network, right after its first call has made the weights; nothing of it stays, and
   no random numbers of the context are used. Not inside of a rule or a block with a tape of its
   own. The row is large, so that products of many factors stand out. */
static int eqnn__emlp_try(eqnn_ctx *c, const eqnn_label *in, const eqnn_label *at,
                          const eqnn_label *out, const eqnn_emlp_opts *o)
{
    eqnn__groups *all = eqnn__groups_of(c);
    uint64_t key = c->scope.hash[c->scope.depth], seed = 11;
    key = eqnn__hash(key, out->name, strlen(out->name));
    key = eqnn__hash(eqnn__hash(key, in->name, strlen(in->name)), at->name, strlen(at->name));
    key = eqnn__hash_int(key, 2 * o->layers + o->no_bilinear);
    if (c->own_tape || c->in_rule || c->recycler) return 1;
    for (eqnn__emlp_seen *k = all->emlp; k; k = k->next)
        if (k->key == key) return 1;
    eqnn__emlp_seen *k = (eqnn__emlp_seen *)eqnn__keep_alloc(c, sizeof *k);
    eqnn_mark mark = eqnn_mark_make(c);
    int recording = eqnn__pause(c);
    double *v = (double *)eqnn__temp(c, (size_t)in->cols, sizeof *v);
    for (int i = 0; v && i < in->cols; i++) v[i] = 8 * eqnn__generic(&seed);
    eqnn_tensor *x = k && v ? eqnn_as(eqnn_from_double(c, 1, in->cols, v), in) : NULL;
    x = eqnn__emlp_blocks(x, o, &at);
    int good = x && eqnn__emlp_alive(x, at, out);
    eqnn__resume(c, recording);
    eqnn_rewind(mark, NULL);
    if (!good) return 0;
    k->key = key;
    k->next = all->emlp;
    all->emlp = k;
    return 1;
}

EQNN_API eqnn_tensor *eqnn_emlp(eqnn_tensor *x, const char *name, const eqnn_rep *in,
                                const eqnn_rep *out, const eqnn_group *g,
                                const eqnn_emlp_opts *opts)
{
    eqnn_emlp_opts o = eqnn__emlp_defaults(opts);
    if (eqnn__bad(x, "emlp")) return NULL;
    eqnn_ctx *c = x->ctx;
    x = eqnn_enter(x, name);
    if (!eqnn__positive(c, "emlp", ".channels", o.channels) ||
        !eqnn__positive(c, "emlp", ".layers", o.layers))
        return NULL;
    if (!eqnn__no_use(c, "emlp", o.hiddens && o.hidden, ".hidden", "beside .hiddens",
                      "of all hidden layers, and .hiddens of each") ||
        !eqnn__no_use(c, "emlp", (o.hiddens || o.hidden) && opts && opts->channels, ".channels",
                      "beside .hidden or .hiddens", "of hidden layers that are chosen by it"))
        return NULL;
    if (!in || !out || (!g && !o.hidden && !o.hiddens))
        return eqnn__fail(c, "emlp: %s missing (NULL)",
                          in && out ? "the group is" : "a representation is");
    int home = eqnn__group_at_home(c, g, "emlp") && eqnn__rep_at_home(c, in, "emlp") &&
               eqnn__rep_at_home(c, out, "emlp") && eqnn__rep_at_home(c, o.hidden, "emlp");
    for (int i = 0; home && o.hiddens && i < o.layers; i++)
        home = eqnn__rep_at_home(c, o.hiddens[i], "emlp");
    if (!home) return NULL;
    const eqnn_rep *hidden = o.hidden || o.hiddens ? o.hidden
                                                   : eqnn__emlp_hidden(in, out, g, o.channels);
    const eqnn_label *at = eqnn_rep_label(o.hiddens ? o.hiddens[0] : hidden);
    x = at ? eqnn_from_rep(x, in) : NULL;
    if (x && !eqnn__emlp_reaches(c, eqnn_rep_label(in), eqnn_rep_gated(c, at), 0)) return NULL;
    const eqnn_label *first = at;
    x = eqnn__emlp_blocks(x, &o, &at);
    if (x && !eqnn__emlp_reaches(c, at, eqnn_rep_label(out), 1)) return NULL;
    x = eqnn_rep_linear(x, eqnn_format(c, "network.%d", o.layers), eqnn_rep_label(out), &o.linear);
    x = eqnn_to_rep(x, out);
    if (x && !eqnn__emlp_try(c, eqnn_rep_label(in), first, eqnn_rep_label(out), &o)) return NULL;
    return eqnn_leave(x);
}

/* ------------------------------------------------------------------------------------------------
   6 >>lie
   ---------------------------------------------------------------------------------------------- */

struct eqnn_lie {
    eqnn_ctx *ctx;
    const char *name;
    eqnn_lie_opts f;       /* sizes and functions: what a user may give is all there is */
    int axis;              /* Tx, Ty: the coordinate that moves                         */
    int turns;             /* SE(2)_canonical: angles in a turn, 0 of all other groups  */
    struct eqnn_lie *next;
};

/* --- bilinear maps of rows, as forms --- */

enum {
    EQNN__COMPLEX,            /* a b                                             */
    EQNN__COMPLEX_BETWEEN,    /* conj(a) b                                       */
    EQNN__QUATERNION,         /* a b                                             */
    EQNN__QUATERNION_BETWEEN, /* conj(a) b                                       */
    EQNN__ROTATE,             /* vector part of q x conj(q): slots q q x         */
    EQNN__ROTATE_BACK,        /* of conj(q) x q                                  */
    EQNN__CROSS,              /* a x b                                           */
    EQNN__MATRICES,           /* of d x d matrices, or one of them and a point   */
    EQNN__LIE_OUTER,          /* section 7: outer products of channels and k     */
    EQNN__LIE_MIX,            /* the linear map behind them, for copies of nodes */
    EQNN__HEADS_MIX           /* section 8: a linear map of each head            */
};

/* The plans of these forms that were needed so far, by their sizes. */
typedef struct eqnn__plan {
    int form, a, b, c; /* see where they are made; 0: not needed */
    const void *plan;
    struct eqnn__plan *next;
} eqnn__plan;

/* Where the plan of a form stands, or is to be put (NULL as yet). */
static const void **eqnn__plan_find(eqnn_ctx *ctx, int form, int a, int b, int c)
{
    eqnn__groups *all = eqnn__groups_of(ctx);
    for (eqnn__plan *p = all ? all->plans : NULL; p; p = p->next)
        if (p->form == form && p->a == a && p->b == b && p->c == c) return &p->plan;
    eqnn__plan *p = all ? (eqnn__plan *)eqnn__keep_alloc(ctx, sizeof *p) : NULL;
    if (!p) return NULL;
    p->form = form, p->a = a, p->b = b, p->c = c;
    p->next = all->plans;
    all->plans = p;
    return &p->plan;
}

/* Units 1, i, j, k are numbered 0 to 3: e_a e_b = sign e_(a xor b) (Hamilton 1843). */
static int eqnn__unit_sign(int a, int b)
{
    static const signed char sign[4][4] = {
        { 1, 1, 1, 1 }, { 1, -1, 1, -1 }, { 1, -1, -1, 1 }, { 1, 1, -1, -1 }
    };
    return sign[a][b];
}

/* Products of quaternions; of complex numbers, which are those of the units 1 and k; of vectors. */
static int eqnn__product_records(int which, eqnn__poly_record *r)
{
    int n = 0, complex_numbers = which <= EQNN__COMPLEX_BETWEEN, cross = which == EQNN__CROSS;
    int between = which == EQNN__COMPLEX_BETWEEN || which == EQNN__QUATERNION_BETWEEN;
    for (int a = cross; a < 4; a++)
        for (int b = cross; b < 4; b++) {
            if ((complex_numbers && (a % 3 || b % 3)) || (cross && a == b)) continue;
            r[n].c = eqnn__unit_sign(a, b) * (between && a > 0 ? -1 : 1);
            r[n].col[0] = complex_numbers ? a / 3 : a - cross;
            r[n].col[1] = complex_numbers ? b / 3 : b - cross;
            r[n].col[2] = complex_numbers ? (a ^ b) / 3 : (a ^ b) - cross;
            n++;
        }
    return n;
}

/* q x conj(q) is a sum over a, b, c of q_a x_b q_c e_a e_b conj(e_c); back exchanges the
   conjugate. */
static int eqnn__rotation_records(int back, eqnn__poly_record *r)
{
    int n = 0;
    for (int a = 0; a < 4; a++)
        for (int b = 1; b < 4; b++)
            for (int c = 0; c < 4; c++) {
                int out = a ^ b ^ c, conjugated = back ? a : c;
                if (out == 0) continue; /* the real part is zero */
                r[n].c = eqnn__unit_sign(a, b) * eqnn__unit_sign(a ^ b, c) * (conjugated ? -1 : 1);
                r[n].col[0] = a;
                r[n].col[1] = c;
                r[n].col[2] = b - 1;
                r[n++].col[3] = out - 1;
            }
    return n;
}

/* C = A B of d x d matrices row by row, or y = A x: B has width columns. */
static const void *eqnn__matrix_plan(eqnn_ctx *c, int d, int width)
{
    int n = 0;
    size_t room = (size_t)d * (size_t)d * (size_t)width;
    const void **plan = eqnn__plan_find(c, EQNN__MATRICES, d, width, 0);
    if (!plan || *plan) return plan ? *plan : NULL;
    eqnn__poly_record *r = (eqnn__poly_record *)eqnn__take(c, room, sizeof *r);
    if (!r) return NULL;
    for (int i = 0; i < d; i++)
        for (int k = 0; k < d; k++)
            for (int j = 0; j < width; j++) {
                r[n].c = 1;
                r[n].col[0] = i * d + k;
                r[n].col[1] = k * width + j;
                r[n++].col[2] = i * width + j;
            }
    *plan = eqnn__poly_plan(c, 3, 1, r, n);
    eqnn__drop(c, r, room, sizeof *r);
    return *plan;
}

/* The value of a form of slots factors and a result of cols columns. */
static eqnn_tensor *eqnn__lie_form(eqnn_ctx *c, const void *plan, eqnn_tensor *const *x, int n,
                                   int cols)
{
    eqnn_tensor *v[EQNN__SLOTS] = { NULL };
    eqnn__form f;
    for (int s = 0; s < n; s++)
        if (!x[s]) return NULL;
        else v[s] = x[s];
    int rows = eqnn__stretch_rows(v, n);
    if (rows < 0) return eqnn__fail(c, "%s: the factors have different numbers of rows", c->op);
    eqnn__form_start(&f, EQNN__POLY, n + 1, rows, plan);
    for (int s = 0; s < n; s++)
        eqnn__slot(&f, s, eqnn__row_map(v[s]->rows, rows), v[s]->rows, v[s]->cols);
    eqnn__slot(&f, n, EQNN__EACH, rows, cols);
    return eqnn__form_value(c, &f, v, n);
}

static eqnn_tensor *eqnn__lie_times(int which, eqnn_tensor *a, eqnn_tensor *b)
{
    int turn = which == EQNN__ROTATE || which == EQNN__ROTATE_BACK;
    eqnn__poly_record r[48];
    eqnn_tensor *x[3] = { a, a, b };
    if (!a || !b) return NULL;
    const void **plan = eqnn__plan_find(a->ctx, which, 0, 0, 0);
    if (!plan) return NULL;
    if (!*plan) {
        int n = turn ? eqnn__rotation_records(which == EQNN__ROTATE_BACK, r)
                     : eqnn__product_records(which, r);
        *plan = eqnn__poly_plan(a->ctx, turn ? 4 : 3, 1, r, n);
    }
    return eqnn__lie_form(a->ctx, *plan, x + !turn, 2 + turn, b->cols);
}

/* --- pieces --- */

/* A constant row of up to four numbers. */
static eqnn_tensor *eqnn__lie_row(eqnn_ctx *c, int cols, double a, double b, double d, double e)
{
    const double row[4] = { a, b, d, e };
    return eqnn_from_double(c, 1, cols, row);
}

/* 1 where x < limit, else 0: a constant */
static eqnn_tensor *eqnn__lie_below(eqnn_tensor *x, double limit)
{
    return x ? eqnn_less(x, eqnn_full(x->ctx, 1, 1, limit)) : NULL;
}

/* The angle of a complex number, in (-pi, pi]. Angles that rounding has put just above -pi count as
   pi, so that two elements half a turn apart have the same logarithm whichever way they come. */
static eqnn_tensor *eqnn__lie_angle(eqnn_tensor *u)
{
    double tolerance = sizeof(eqnn_real) == 8 ? 1e-11 : 1e-5;
    eqnn_tensor *c = eqnn_slice(u, 0, 1), *s = eqnn_slice(u, 1, 1);
    eqnn_tensor *angle = eqnn_atan2(s, c);
    eqnn_tensor *low = eqnn__lie_below(angle, tolerance - EQNN__PI);
    return eqnn_add(angle, eqnn_scale(low, 2 * EQNN__PI));
}

static eqnn_tensor *eqnn__lie_turn(eqnn_tensor *angle)
{
    eqnn_tensor *c = eqnn_cos(angle), *s = eqnn_sin(angle);
    return eqnn_concat(c, s);
}

/* x / |x|, r = |x|; the first axis, with gradient 0, where x = 0 */
static eqnn_tensor *eqnn__lie_direction(eqnn_tensor *x, eqnn_tensor *r)
{
    if (!x || !r) return NULL;
    eqnn_tensor *u = eqnn_mul(x, eqnn_reciprocal(r)), *none = eqnn_zeros(x->ctx, 1, 1);
    eqnn_tensor *axis = eqnn__lie_row(x->ctx, x->cols, 1, 0, 0, 0);
    none = eqnn_equal(r, none);
    return eqnn_add(u, eqnn_mul(none, axis));
}

/* log of a length or coordinate; below 1e-15 (at the origin) that of 1e-15, with gradient 0 */
static eqnn_tensor *eqnn__lie_log_scale(eqnn_tensor *r)
{
    return r ? eqnn_log(eqnn_max(r, eqnn_full(r->ctx, 1, 1, 1e-15))) : NULL;
}

/* --- shifts of coordinates: T, Tx, Ty; and of their logarithms: Rx, RxSQ, SQ --- */

static eqnn_tensor *eqnn__shift_same(const eqnn_lie *g, eqnn_tensor *a)
{
    (void)g;
    return a;
}

static eqnn_tensor *eqnn__shift_product(const eqnn_lie *g, eqnn_tensor *u, eqnn_tensor *v)
{
    (void)g;
    return eqnn_add(u, v);
}

static eqnn_tensor *eqnn__shift_inverse(const eqnn_lie *g, eqnn_tensor *u)
{
    (void)g;
    return eqnn_neg(u);
}

static eqnn_tensor *eqnn__shift_between(const eqnn_lie *g, eqnn_tensor *v, eqnn_tensor *u)
{
    (void)g;
    return eqnn_sub(u, v);
}

static eqnn_tensor *eqnn__shift_bracket(const eqnn_lie *g, eqnn_tensor *a, eqnn_tensor *b)
{
    (void)b;
    return a ? eqnn_zeros(g->ctx, a->rows, a->cols) : NULL;
}

/* The coordinate that moves, or (rest) the others. */
static eqnn_ints *eqnn__axis_columns(const eqnn_lie *g, int rest)
{
    int list[16], n = 0;
    for (int i = 0; i < g->f.point_dim; i++)
        if ((i == g->axis) != rest) list[n++] = i;
    return eqnn_ints_make(g->ctx, n, list, g->f.point_dim, 0);
}

static eqnn_tensor *eqnn__shift_lift(const eqnn_lie *g, eqnn_tensor *x, eqnn_tensor *draws,
                                     eqnn_tensor **q)
{
    (void)draws;
    if (g->f.lie_dim == g->f.point_dim) return x;
    if (g->f.q_dim) *q = eqnn_columns(x, eqnn__axis_columns(g, 1));
    return eqnn_columns(x, eqnn__axis_columns(g, 0));
}

static eqnn_tensor *eqnn__shift_act(const eqnn_lie *g, eqnn_tensor *u, eqnn_tensor *x)
{
    if (g->f.lie_dim < g->f.point_dim) u = eqnn_collect_columns(u, eqnn__axis_columns(g, 0));
    return eqnn_add(x, u);
}

static eqnn_tensor *eqnn__trivial_lift(const eqnn_lie *g, eqnn_tensor *x, eqnn_tensor *draws,
                                       eqnn_tensor **q)
{
    (void)draws;
    *q = x;
    return x ? eqnn_zeros(g->ctx, x->rows, 0) : NULL;
}

static eqnn_tensor *eqnn__trivial_act(const eqnn_lie *g, eqnn_tensor *u, eqnn_tensor *x)
{
    (void)g;
    return u ? x : NULL;
}

static eqnn_tensor *eqnn__scale_lift(const eqnn_lie *g, eqnn_tensor *x, eqnn_tensor *draws,
                                     eqnn_tensor **q)
{
    (void)draws;
    eqnn_tensor *r = eqnn_norm(x);
    *q = eqnn__lie_direction(x, r);
    if (g->f.q_dim == 1) *q = eqnn__lie_angle(*q);
    return eqnn__lie_log_scale(r);
}

static eqnn_tensor *eqnn__scale_act(const eqnn_lie *g, eqnn_tensor *u, eqnn_tensor *x)
{
    (void)g;
    eqnn_tensor *scale = eqnn_exp(u);
    return eqnn_mul(scale, x);
}

/* The angle between two directions, or two angles. */
static eqnn_tensor *eqnn__angle_apart(const eqnn_lie *g, eqnn_tensor *q, eqnn_tensor *p)
{
    if (g->f.q_dim == 1) {
        q = eqnn__lie_turn(q);
        p = eqnn__lie_turn(p);
    }
    return eqnn_abs(eqnn__lie_angle(eqnn__lie_times(EQNN__COMPLEX_BETWEEN, q, p)));
}

/* log r = (log x + log y)/2, log s = (log x - log y)/2 */
static eqnn_tensor *eqnn__squeeze_lift(const eqnn_lie *g, eqnn_tensor *point, eqnn_tensor *draws,
                                       eqnn_tensor **q)
{
    (void)draws;
    eqnn_tensor *half = eqnn_scale(eqnn__lie_log_scale(point), 0.5);
    eqnn_tensor *x = eqnn_slice(half, 0, 1), *y = eqnn_slice(half, 1, 1);
    eqnn_tensor *r = eqnn_add(x, y), *s = eqnn_sub(x, y);
    if (g->f.lie_dim == 2) return eqnn_concat(r, s);
    *q = r;
    return s;
}

static eqnn_tensor *eqnn__squeeze_act(const eqnn_lie *g, eqnn_tensor *u, eqnn_tensor *x)
{
    eqnn_tensor *s = g->f.lie_dim == 2 ? eqnn_slice(u, 1, 1) : u, *t = eqnn_neg(s);
    s = eqnn_concat(s, t);
    if (g->f.lie_dim == 2) s = eqnn_add(s, eqnn_slice(u, 0, 1));
    s = eqnn_exp(s);
    return eqnn_mul(s, x);
}

/* --- SO(2) and RxSO(2): complex numbers of length 1, after the logarithm of a scale --- */

static eqnn_tensor *eqnn__circle_exp(const eqnn_lie *g, eqnn_tensor *a)
{
    (void)g;
    return eqnn__lie_turn(a);
}

static eqnn_tensor *eqnn__circle_log(const eqnn_lie *g, eqnn_tensor *u)
{
    (void)g;
    return eqnn__lie_angle(u);
}

static eqnn_tensor *eqnn__circle_product(const eqnn_lie *g, eqnn_tensor *u, eqnn_tensor *v)
{
    (void)g;
    return eqnn__lie_times(EQNN__COMPLEX, u, v);
}

static eqnn_tensor *eqnn__circle_between(const eqnn_lie *g, eqnn_tensor *v, eqnn_tensor *u)
{
    (void)g;
    return eqnn__lie_times(EQNN__COMPLEX_BETWEEN, v, u);
}

static eqnn_tensor *eqnn__circle_inverse(const eqnn_lie *g, eqnn_tensor *u)
{
    return eqnn_mul(u, eqnn__lie_row(g->ctx, 2, 1, -1, 0, 0));
}

static eqnn_tensor *eqnn__circle_lift(const eqnn_lie *g, eqnn_tensor *x, eqnn_tensor *draws,
                                      eqnn_tensor **q)
{
    (void)g, (void)draws;
    *q = eqnn_norm(x);
    return eqnn__lie_direction(x, *q);
}

/* |r - r'| / (r + r' + 1e-3): LieConv's, the same for near and far points */
static eqnn_tensor *eqnn__circle_apart(const eqnn_lie *g, eqnn_tensor *q, eqnn_tensor *p)
{
    (void)g;
    eqnn_tensor *d = eqnn_abs(eqnn_sub(q, p)), *sum = eqnn_shift(eqnn_add(q, p), 1e-3);
    return eqnn_div(d, sum);
}

/* The two parts of RxSO(2), SE(2) and SE(3): columns before `at`, and the others. */
static void eqnn__lie_parts(eqnn_tensor *u, int at, eqnn_tensor *part[2])
{
    part[0] = eqnn_slice(u, 0, at);
    part[1] = u ? eqnn_slice(u, at, u->cols - at) : NULL;
}

static eqnn_tensor *eqnn__polar_exp(const eqnn_lie *g, eqnn_tensor *a)
{
    eqnn_tensor *p[2];
    (void)g;
    eqnn__lie_parts(a, 1, p);
    return eqnn_concat(p[0], eqnn__lie_turn(p[1]));
}

static eqnn_tensor *eqnn__polar_log(const eqnn_lie *g, eqnn_tensor *u)
{
    eqnn_tensor *p[2];
    (void)g;
    eqnn__lie_parts(u, 1, p);
    return eqnn_concat(p[0], eqnn__lie_angle(p[1]));
}

static eqnn_tensor *eqnn__polar_product(const eqnn_lie *g, eqnn_tensor *u, eqnn_tensor *v)
{
    eqnn_tensor *p[2], *s[2];
    (void)g;
    eqnn__lie_parts(u, 1, p);
    eqnn__lie_parts(v, 1, s);
    p[0] = eqnn_add(p[0], s[0]);
    return eqnn_concat(p[0], eqnn__lie_times(EQNN__COMPLEX, p[1], s[1]));
}

static eqnn_tensor *eqnn__polar_inverse(const eqnn_lie *g, eqnn_tensor *u)
{
    return eqnn_mul(u, eqnn__lie_row(g->ctx, 3, -1, 1, -1, 0));
}

static eqnn_tensor *eqnn__polar_lift(const eqnn_lie *g, eqnn_tensor *x, eqnn_tensor *draws,
                                     eqnn_tensor **q)
{
    (void)g, (void)draws, (void)q;
    eqnn_tensor *r = eqnn_norm(x), *u = eqnn__lie_direction(x, r);
    r = eqnn__lie_log_scale(r);
    return eqnn_concat(r, u);
}

static eqnn_tensor *eqnn__polar_act(const eqnn_lie *g, eqnn_tensor *u, eqnn_tensor *x)
{
    eqnn_tensor *p[2];
    (void)g;
    eqnn__lie_parts(u, 1, p);
    x = eqnn__lie_times(EQNN__COMPLEX, p[1], x);
    return eqnn_mul(x, eqnn_exp(p[0]));
}

/* --- SO(3): quaternions of length 1 --- */

/* exp: (cos |a|/2, sin(|a|/2)/|a| a), by S(t) = sin(sqrt t)/sqrt t, which is smooth at 0: with
   t = |a|^2 the second is S(t/4) a / 2, and cos(|a|/2) = 1 - 2 sin^2(|a|/4) = 1 - t S(t/16)^2/8. */
static eqnn_tensor *eqnn__lie_sinc(eqnn_tensor *t, double scale, int order)
{
    return eqnn_map(eqnn_scale(t, scale), EQNN_SINC_ROOT, 0, order);
}

static eqnn_tensor *eqnn__quaternion_exp(const eqnn_lie *g, eqnn_tensor *a)
{
    (void)g;
    eqnn_tensor *t = eqnn_sum_cols(eqnn_square(a));
    eqnn_tensor *v = eqnn_mul(a, eqnn_scale(eqnn__lie_sinc(t, 0.25, 0), 0.5));
    eqnn_tensor *s = eqnn_square(eqnn__lie_sinc(t, 1. / 16, 0));
    eqnn_tensor *w = eqnn_shift(eqnn_scale(eqnn_mul(t, s), -0.125), 1);
    return eqnn_concat(w, v);
}

/* q and -q turn alike: the one with w >= 0 turns by at most pi. */
static eqnn_tensor *eqnn__quaternion_near(eqnn_tensor *q)
{
    eqnn_tensor *w = eqnn_slice(q, 0, 1);
    return eqnn_mul(q, eqnn_shift(eqnn_scale(eqnn__lie_below(w, 0), -2), 1));
}

/* With w = cos(angle/2) and v = sin(angle/2) axis: angle axis = 2 A(w) v, where A(w) =
   acos(w)/sqrt(1 - w^2) is smooth from 1 (the identity) to 0 (angle pi), to any order. */
static eqnn_tensor *eqnn__quaternion_log(const eqnn_lie *g, eqnn_tensor *q)
{
    eqnn_tensor *p[2];
    (void)g;
    eqnn__lie_parts(eqnn__quaternion_near(q), 1, p);
    return eqnn_mul(p[1], eqnn_scale(eqnn_map(p[0], EQNN_ARC, 0, 0), 2));
}

static eqnn_tensor *eqnn__quaternion_product(const eqnn_lie *g, eqnn_tensor *u, eqnn_tensor *v)
{
    (void)g;
    return eqnn__lie_times(EQNN__QUATERNION, u, v);
}

static eqnn_tensor *eqnn__quaternion_between(const eqnn_lie *g, eqnn_tensor *v, eqnn_tensor *u)
{
    (void)g;
    return eqnn__lie_times(EQNN__QUATERNION_BETWEEN, v, u);
}

static eqnn_tensor *eqnn__quaternion_inverse(const eqnn_lie *g, eqnn_tensor *u)
{
    return eqnn_mul(u, eqnn__lie_row(g->ctx, 4, 1, -1, -1, -1));
}

static eqnn_tensor *eqnn__quaternion_act(const eqnn_lie *g, eqnn_tensor *u, eqnn_tensor *x)
{
    (void)g;
    return eqnn__lie_times(EQNN__ROTATE, u, x);
}

static eqnn_tensor *eqnn__quaternion_bracket(const eqnn_lie *g, eqnn_tensor *a, eqnn_tensor *b)
{
    (void)g;
    return eqnn__lie_times(EQNN__CROSS, a, b);
}

/* The shortest rotation of the first axis e to a unit vector n = (a, b, c) is (1 + a, e x n) over
   its length sqrt(2 + 2 a). It has no limit as n nears -e, so there n is reached from -e instead,
   after half a turn about the third axis took e to -e: with s = -1 (else 1)

       (1 + s a, 0, -s c, s b) / sqrt(2 + 2 s a),   for s = -1 times (0, 0, 0, 1) from the right.

   No choice is continuous on the whole sphere; the angle about e that a lift adds is drawn evenly,
   so that the law of the lift does not show it. */
static eqnn_tensor *eqnn__quaternion_from_axis(eqnn_tensor *n)
{
    if (!n) return NULL;
    eqnn_tensor *a = eqnn_slice(n, 0, 1), *b = eqnn_slice(n, 1, 1), *d = eqnn_slice(n, 2, 1);
    eqnn_tensor *beyond = eqnn__lie_below(a, -0.96);
    eqnn_tensor *s = eqnn_shift(eqnn_scale(beyond, -2), 1);
    eqnn_tensor *w = eqnn_shift(eqnn_mul(s, a), 1), *zero = eqnn_scale(a, 0);
    eqnn_tensor *y = eqnn_neg(eqnn_mul(s, d)), *z = eqnn_mul(s, b);
    eqnn_tensor *first[4], *other[4];
    first[0] = w, first[1] = zero, first[2] = y, first[3] = z;
    other[0] = eqnn_neg(z), other[1] = y, other[2] = zero, other[3] = w;
    if (!zero || !y || !z || !other[0]) return NULL;
    eqnn_tensor *q = eqnn_concat_n(first, 4), *p = eqnn_concat_n(other, 4);
    q = eqnn_where(beyond, p, q);
    return eqnn_mul(q, eqnn_rsqrt(eqnn_scale(w, 2)));
}

/* A fraction of a turn about the first axis. */
static eqnn_tensor *eqnn__quaternion_about_axis(eqnn_tensor *fraction)
{
    if (!fraction) return NULL;
    eqnn_tensor *u = eqnn__lie_turn(eqnn_scale(fraction, EQNN__PI));
    return eqnn_concat(u, eqnn_zeros(fraction->ctx, fraction->rows, 2));
}

static eqnn_tensor *eqnn__quaternion_lift(const eqnn_lie *g, eqnn_tensor *x, eqnn_tensor *draws,
                                          eqnn_tensor **q)
{
    (void)g;
    eqnn_tensor *r = eqnn_norm(x), *n = eqnn__lie_direction(x, r);
    eqnn_tensor *turn = eqnn__quaternion_about_axis(draws), *to = eqnn__quaternion_from_axis(n);
    *q = r;
    return eqnn__lie_times(EQNN__QUATERNION, to, turn);
}

/* --- SE(2) and SE(3): x -> R x + t; elements are (R, t), R a complex number or a quaternion --- */

static int eqnn__motion_cut(const eqnn_lie *g) { return g->f.point_dim == 2 ? 2 : 4; }

/* R x, or R^-1 x */
static eqnn_tensor *eqnn__motion_turn(const eqnn_lie *g, eqnn_tensor *R, eqnn_tensor *x, int back)
{
    int flat = g->f.point_dim == 2;
    return eqnn__lie_times(flat ? (back ? EQNN__COMPLEX_BETWEEN : EQNN__COMPLEX)
                                : (back ? EQNN__ROTATE_BACK : EQNN__ROTATE), R, x);
}

/* (R, t)(S, s) = (R S, R s + t) */
static eqnn_tensor *eqnn__motion_product(const eqnn_lie *g, eqnn_tensor *u, eqnn_tensor *v)
{
    eqnn_tensor *p[2], *s[2], *R, *t;
    eqnn__lie_parts(u, eqnn__motion_cut(g), p);
    eqnn__lie_parts(v, eqnn__motion_cut(g), s);
    R = eqnn__lie_times(g->f.point_dim == 2 ? EQNN__COMPLEX : EQNN__QUATERNION, p[0], s[0]);
    t = eqnn_add(eqnn__motion_turn(g, p[0], s[1], 0), p[1]);
    return eqnn_concat(R, t);
}

/* (S^-1 R, S^-1 (t - s)): the difference first, so that no digits go far from the origin */
static eqnn_tensor *eqnn__motion_between(const eqnn_lie *g, eqnn_tensor *v, eqnn_tensor *u)
{
    int flat = g->f.point_dim == 2;
    eqnn_tensor *p[2], *s[2], *R, *t;
    eqnn__lie_parts(u, eqnn__motion_cut(g), p);
    eqnn__lie_parts(v, eqnn__motion_cut(g), s);
    R = eqnn__lie_times(flat ? EQNN__COMPLEX_BETWEEN : EQNN__QUATERNION_BETWEEN, s[0], p[0]);
    t = eqnn__motion_turn(g, s[0], eqnn_sub(p[1], s[1]), 1);
    return eqnn_concat(R, t);
}

static eqnn_tensor *eqnn__motion_inverse(const eqnn_lie *g, eqnn_tensor *u)
{
    eqnn_tensor *p[2], *R, *t;
    eqnn__lie_parts(u, eqnn__motion_cut(g), p);
    R = g->f.point_dim == 2 ? eqnn__circle_inverse(g, p[0]) : eqnn__quaternion_inverse(g, p[0]);
    t = eqnn_neg(eqnn__motion_turn(g, p[0], p[1], 1));
    return eqnn_concat(R, t);
}

static eqnn_tensor *eqnn__motion_act(const eqnn_lie *g, eqnn_tensor *u, eqnn_tensor *x)
{
    eqnn_tensor *p[2];
    eqnn__lie_parts(u, eqnn__motion_cut(g), p);
    return eqnn_add(eqnn__motion_turn(g, p[0], x, 0), p[1]);
}

/* (-y, x): a quarter of a turn */
static eqnn_tensor *eqnn__lie_quarter(eqnn_tensor *x)
{
    if (!x) return NULL;
    return eqnn__lie_times(EQNN__COMPLEX, eqnn__lie_row(x->ctx, 2, 0, 1, 0, 0), x);
}

/* t = V u, V = sin(h)/h I + (1 - cos h)/h K: the path of a point that is turned while it is pushed.
   (1 - cos h)/h = sin(h/2) sinc(h/2). */
static eqnn_tensor *eqnn__plane_exp(const eqnn_lie *g, eqnn_tensor *a)
{
    eqnn_tensor *p[2], *half, *along, *across, *t;
    (void)g;
    eqnn__lie_parts(a, 1, p);
    half = eqnn_scale(p[0], 0.5);
    along = eqnn_mul(p[1], eqnn_map(p[0], EQNN_SINC, 0, 0));
    across = eqnn_sin(half);
    across = eqnn_mul(across, eqnn_map(half, EQNN_SINC, 0, 0));
    t = eqnn_add(along, eqnn_mul(eqnn__lie_quarter(p[1]), across));
    return eqnn_concat(eqnn__lie_turn(p[0]), t);
}

/* V^-1 = b I - h/2 K, b = h/2 cot(h/2) = w A(w) with w = cos(h/2) */
static eqnn_tensor *eqnn__plane_log(const eqnn_lie *g, eqnn_tensor *u)
{
    eqnn_tensor *p[2], *angle, *half, *w, *b, *along, *across;
    (void)g;
    eqnn__lie_parts(u, 2, p);
    angle = eqnn__lie_angle(p[0]);
    half = eqnn_scale(angle, 0.5);
    w = eqnn_cos(half);
    b = eqnn_mul(w, eqnn_map(w, EQNN_ARC, 0, 0));
    along = eqnn_mul(p[1], b);
    across = eqnn_mul(eqnn__lie_quarter(p[1]), half);
    return eqnn_concat(angle, eqnn_sub(along, across));
}

static eqnn_tensor *eqnn__plane_lift(const eqnn_lie *g, eqnn_tensor *x, eqnn_tensor *draws,
                                     eqnn_tensor **q)
{
    (void)g, (void)q;
    eqnn_tensor *R = eqnn__lie_turn(eqnn_scale(draws, 2 * EQNN__PI));
    return eqnn_concat(R, x);
}

/* [(h, u), (k, v)] = (0, h K v - k K u) */
static eqnn_tensor *eqnn__plane_bracket(const eqnn_lie *g, eqnn_tensor *a, eqnn_tensor *b)
{
    eqnn_tensor *p[2], *s[2], *first, *second;
    eqnn__lie_parts(a, 1, p);
    eqnn__lie_parts(b, 1, s);
    first = eqnn_mul(eqnn__lie_quarter(s[1]), p[0]);
    second = eqnn_mul(eqnn__lie_quarter(p[1]), s[0]);
    second = eqnn_sub(first, second);
    return second ? eqnn_concat(eqnn_zeros(g->ctx, second->rows, 1), second) : NULL;
}

/* V u = S u + c2 w x u + c3 (w.u) w with t = |w|^2, S = sin(sqrt t)/sqrt t, c2 = (1 - cos)/t =
   S(t/4)^2 / 2, c3 = (1 - S)/t = c2 + 2 S'(t) */
static eqnn_tensor *eqnn__screw_shift(eqnn_tensor *w, eqnn_tensor *u)
{
    eqnn_tensor *t = eqnn_sum_cols(eqnn_square(w)), *s = eqnn__lie_sinc(t, 1, 0);
    eqnn_tensor *c2 = eqnn_scale(eqnn_square(eqnn__lie_sinc(t, 0.25, 0)), 0.5);
    eqnn_tensor *slope = eqnn__lie_sinc(t, 1, 1);
    eqnn_tensor *c3 = eqnn_add(c2, eqnn_scale(slope, 2)), *wu = eqnn_sum_cols(eqnn_mul(w, u));
    eqnn_tensor *along = eqnn_mul(u, s), *across = eqnn_mul(eqnn__lie_times(EQNN__CROSS, w, u), c2);
    eqnn_tensor *axis = eqnn_mul(w, eqnn_mul(wu, c3));
    return eqnn_add(eqnn_add(along, across), axis);
}

static eqnn_tensor *eqnn__screw_exp(const eqnn_lie *g, eqnn_tensor *a)
{
    eqnn_tensor *p[2], *q;
    eqnn__lie_parts(a, 3, p);
    q = eqnn__quaternion_exp(g, p[0]);
    return eqnn_concat(q, eqnn__screw_shift(p[0], p[1]));
}

/* V^-1 t = b t - w x t / 2 + (1 - b)/|w|^2 (w.t) w, b = |w|/2 cot(|w|/2). Half the rotation vector
   is A v, so that is

       A w t - A v x t - A' (v.t) v,     A' = dA/dw = (w A - 1)/(1 - w^2)

   (w here the quaternion's real part): smooth wherever A is. */
static eqnn_tensor *eqnn__screw_log(const eqnn_lie *g, eqnn_tensor *u)
{
    eqnn_tensor *q[2], *p[2], *A, *slope, *along, *across, *axis, *turn;
    (void)g;
    eqnn__lie_parts(u, 4, q);
    eqnn__lie_parts(eqnn__quaternion_near(q[0]), 1, p);
    A = eqnn_map(p[0], EQNN_ARC, 0, 0);
    slope = eqnn_map(p[0], EQNN_ARC, 0, 1);
    turn = eqnn_mul(p[1], A);
    along = eqnn_mul(q[1], eqnn_mul(p[0], A));
    across = eqnn__lie_times(EQNN__CROSS, turn, q[1]);
    axis = eqnn_sum_cols(eqnn_mul(p[1], q[1]));
    axis = eqnn_mul(p[1], eqnn_mul(axis, slope));
    along = eqnn_sub(eqnn_sub(along, across), axis);
    return eqnn_concat(eqnn_scale(turn, 2), along);
}

/* Four normal numbers point everywhere alike: over their length, an even law of rotations
   (Marsaglia 1972). */
static eqnn_tensor *eqnn__screw_lift(const eqnn_lie *g, eqnn_tensor *x, eqnn_tensor *draws,
                                     eqnn_tensor **q)
{
    (void)g, (void)q;
    eqnn_tensor *r = eqnn_norm(draws), *R = eqnn__lie_direction(draws, r);
    return eqnn_concat(R, x);
}

/* [(w, u), (z, v)] = (w x z, w x v - z x u) */
static eqnn_tensor *eqnn__screw_bracket(const eqnn_lie *g, eqnn_tensor *a, eqnn_tensor *b)
{
    eqnn_tensor *p[2], *s[2], *turn, *first, *second;
    (void)g;
    eqnn__lie_parts(a, 3, p);
    eqnn__lie_parts(b, 3, s);
    turn = eqnn__lie_times(EQNN__CROSS, p[0], s[0]);
    first = eqnn__lie_times(EQNN__CROSS, p[0], s[1]);
    second = eqnn__lie_times(EQNN__CROSS, s[0], p[1]);
    return eqnn_concat(turn, eqnn_sub(first, second));
}

/* --- SE(2)_canonical(n): shifts, and turns by k of n parts; (k, t) --- */

static eqnn_tensor *eqnn__canonical_turn(const eqnn_lie *g, eqnn_tensor *k, double sign)
{
    return eqnn__lie_turn(eqnn_scale(k, sign * 2 * EQNN__PI / g->turns));
}

/* k of 0..n-1 */
static eqnn_tensor *eqnn__canonical_count(const eqnn_lie *g, eqnn_tensor *k)
{
    eqnn_tensor *low = eqnn_scale(eqnn__lie_below(k, -0.5), g->turns);
    k = eqnn_add(k, low);
    low = eqnn_scale(eqnn__lie_below(k, g->turns - 0.5), g->turns);
    return eqnn_add(k, eqnn_shift(low, -g->turns));
}

static eqnn_tensor *eqnn__canonical_exp(const eqnn_lie *g, eqnn_tensor *a)
{
    eqnn_tensor *p[2];
    (void)g;
    eqnn__lie_parts(a, 2, p);
    return eqnn_concat(p[1], p[0]);
}

static eqnn_tensor *eqnn__canonical_log(const eqnn_lie *g, eqnn_tensor *u)
{
    eqnn_tensor *p[2];
    (void)g;
    eqnn__lie_parts(u, 1, p);
    return eqnn_concat(p[1], p[0]);
}

static eqnn_tensor *eqnn__canonical_product(const eqnn_lie *g, eqnn_tensor *u, eqnn_tensor *v)
{
    eqnn_tensor *p[2], *s[2], *k, *t;
    eqnn__lie_parts(u, 1, p);
    eqnn__lie_parts(v, 1, s);
    k = eqnn__canonical_count(g, eqnn_add(p[0], s[0]));
    t = eqnn__lie_times(EQNN__COMPLEX, eqnn__canonical_turn(g, p[0], 1), s[1]);
    return eqnn_concat(k, eqnn_add(t, p[1]));
}

static eqnn_tensor *eqnn__canonical_inverse(const eqnn_lie *g, eqnn_tensor *u)
{
    eqnn_tensor *p[2], *k, *t;
    eqnn__lie_parts(u, 1, p);
    k = eqnn__canonical_count(g, eqnn_neg(p[0]));
    t = eqnn__lie_times(EQNN__COMPLEX, eqnn__canonical_turn(g, p[0], -1), p[1]);
    return eqnn_concat(k, eqnn_neg(t));
}

/* As published the other way about: u^-1 v. */
static eqnn_tensor *eqnn__canonical_between(const eqnn_lie *g, eqnn_tensor *v, eqnn_tensor *u)
{
    eqnn_tensor *p[2], *s[2], *k, *t;
    eqnn__lie_parts(u, 1, p);
    eqnn__lie_parts(v, 1, s);
    k = eqnn__canonical_count(g, eqnn_sub(s[0], p[0]));
    t = eqnn_sub(s[1], p[1]);
    t = eqnn__lie_times(EQNN__COMPLEX, eqnn__canonical_turn(g, p[0], -1), t);
    return eqnn_concat(k, t);
}

static eqnn_tensor *eqnn__canonical_act(const eqnn_lie *g, eqnn_tensor *u, eqnn_tensor *x)
{
    eqnn_tensor *p[2];
    eqnn__lie_parts(u, 1, p);
    x = eqnn__lie_times(EQNN__COMPLEX, eqnn__canonical_turn(g, p[0], 1), x);
    return eqnn_add(x, p[1]);
}

static eqnn_tensor *eqnn__canonical_lift(const eqnn_lie *g, eqnn_tensor *x, eqnn_tensor *draws,
                                         eqnn_tensor **q)
{
    (void)q;
    eqnn_tensor *k = eqnn_scale(draws, g->turns);
    return eqnn_concat(k, x);
}

/* --- what a group has when its user does not say otherwise --- */

static eqnn_tensor *eqnn__matrix_times(const eqnn_lie *g, eqnn_tensor *A, eqnn_tensor *B, int width)
{
    eqnn_tensor *x[2] = { A, B };
    const void *plan = eqnn__matrix_plan(g->ctx, g->f.point_dim, width);
    return plan && B ? eqnn__lie_form(g->ctx, plan, x, 2, B->cols) : NULL;
}

static eqnn_tensor *eqnn__default_product(const eqnn_lie *g, eqnn_tensor *u, eqnn_tensor *v)
{
    return eqnn__matrix_times(g, u, v, g->f.point_dim);
}

static eqnn_tensor *eqnn__default_act(const eqnn_lie *g, eqnn_tensor *u, eqnn_tensor *x)
{
    return eqnn__matrix_times(g, u, x, 1);
}

static eqnn_tensor *eqnn__default_inverse(const eqnn_lie *g, eqnn_tensor *u)
{
    return g->f.exp(g, eqnn_neg(g->f.log(g, u)));
}

static eqnn_tensor *eqnn__default_between(const eqnn_lie *g, eqnn_tensor *v, eqnn_tensor *u)
{
    return g->f.product(g, g->f.inverse(g, v), u);
}

static eqnn_tensor *eqnn__default_apart(const eqnn_lie *g, eqnn_tensor *q, eqnn_tensor *p)
{
    (void)g;
    return eqnn_norm(eqnn_sub(q, p));
}

static void eqnn__lie_defaults(eqnn_lie_opts *f)
{
    if (!f->cols && f->lie_dim) f->cols = f->point_dim * f->point_dim; /* Trivial keeps none */
    if (!f->product) f->product = eqnn__default_product;
    if (!f->inverse) f->inverse = eqnn__default_inverse;
    if (!f->between) f->between = eqnn__default_between;
    if (!f->act) f->act = eqnn__default_act;
    if (!f->apart) f->apart = eqnn__default_apart;
    if (!f->alpha_cols) f->alpha_cols = f->lie_dim - f->alpha_first;
}

/* --- making --- */

static eqnn_lie *eqnn__lie_new(eqnn_ctx *c, const char *name)
{
    eqnn__groups *all = eqnn__groups_of(c);
    eqnn_lie *g = all ? (eqnn_lie *)eqnn__keep_alloc(c, sizeof *g) : NULL;
    if (!g || !(g->name = eqnn__keep_string(c, name))) return NULL;
    g->ctx = c;
    return g;
}

static const eqnn_lie *eqnn__lie_keep(eqnn_lie *g)
{
    eqnn__groups *all = eqnn__groups_of(g->ctx);
    eqnn__lie_defaults(&g->f);
    g->next = all->lie;
    return all->lie = g;
}

static eqnn_lie *eqnn__lie_find(eqnn_ctx *c, const char *name)
{
    eqnn__groups *all = eqnn__groups_of(c);
    eqnn_lie *g = all ? all->lie : NULL;
    while (g && strcmp(g->name, name)) g = g->next;
    return g;
}

static void eqnn__lie_sizes(eqnn_lie *g, int point_dim, int lie_dim, int cols, int q_dim)
{
    g->f.point_dim = point_dim;
    g->f.lie_dim = lie_dim;
    g->f.cols = cols;
    g->f.q_dim = q_dim;
}

/* Groups whose elements are their own logarithms. */
static void eqnn__lie_shift(eqnn_lie *g, int d, int moved, int axis)
{
    eqnn__lie_sizes(g, d, moved, moved, d - moved);
    g->axis = axis;
    g->f.exp = g->f.log = eqnn__shift_same;
    g->f.product = eqnn__shift_product;
    g->f.inverse = eqnn__shift_inverse;
    g->f.between = eqnn__shift_between;
    g->f.bracket = eqnn__shift_bracket;
    g->f.lift = eqnn__shift_lift;
    g->f.act = eqnn__shift_act;
}

static void eqnn__lie_trivial(eqnn_lie *g, int d)
{
    eqnn__lie_shift(g, d, 0, 0);
    g->f.lift = eqnn__trivial_lift;
    g->f.act = eqnn__trivial_act;
}

static void eqnn__lie_scale(eqnn_lie *g, int q_dim)
{
    eqnn__lie_shift(g, 2, 1, 0);
    g->f.q_dim = q_dim;
    g->f.lift = eqnn__scale_lift;
    g->f.act = eqnn__scale_act;
    g->f.apart = eqnn__angle_apart;
}

static void eqnn__lie_squeeze(eqnn_lie *g, int lie_dim)
{
    eqnn__lie_shift(g, 2, lie_dim, 0);
    g->f.alpha_first = lie_dim - 1;
    g->f.lift = eqnn__squeeze_lift;
    g->f.act = eqnn__squeeze_act;
}

static void eqnn__lie_circle(eqnn_lie *g)
{
    eqnn__lie_sizes(g, 2, 1, 2, 1);
    g->f.exp = eqnn__circle_exp;
    g->f.log = eqnn__circle_log;
    g->f.product = g->f.act = eqnn__circle_product;
    g->f.inverse = eqnn__circle_inverse;
    g->f.between = eqnn__circle_between;
    g->f.bracket = eqnn__shift_bracket;
    g->f.lift = eqnn__circle_lift;
    g->f.apart = eqnn__circle_apart;
}

static void eqnn__lie_polar(eqnn_lie *g)
{
    eqnn__lie_sizes(g, 2, 2, 3, 0);
    g->f.alpha_first = 1;
    g->f.exp = eqnn__polar_exp;
    g->f.log = eqnn__polar_log;
    g->f.product = eqnn__polar_product;
    g->f.inverse = eqnn__polar_inverse;
    g->f.bracket = eqnn__shift_bracket;
    g->f.lift = eqnn__polar_lift;
    g->f.act = eqnn__polar_act;
}

static void eqnn__lie_sphere(eqnn_lie *g)
{
    eqnn__lie_sizes(g, 3, 3, 4, 1);
    g->f.draws = 1;
    g->f.exp = eqnn__quaternion_exp;
    g->f.log = eqnn__quaternion_log;
    g->f.product = eqnn__quaternion_product;
    g->f.inverse = eqnn__quaternion_inverse;
    g->f.between = eqnn__quaternion_between;
    g->f.bracket = eqnn__quaternion_bracket;
    g->f.lift = eqnn__quaternion_lift;
    g->f.act = eqnn__quaternion_act;
}

static void eqnn__lie_motion(eqnn_lie *g, int d)
{
    eqnn__lie_sizes(g, d, d == 2 ? 3 : 6, d == 2 ? 4 : 7, 0);
    g->f.alpha_cols = d == 2 ? 1 : 3;
    g->f.draws = d == 2 ? 1 : 4;
    g->f.even = d == 2;
    g->f.normal = d == 3;
    g->f.exp = d == 2 ? eqnn__plane_exp : eqnn__screw_exp;
    g->f.log = d == 2 ? eqnn__plane_log : eqnn__screw_log;
    g->f.bracket = d == 2 ? eqnn__plane_bracket : eqnn__screw_bracket;
    g->f.lift = d == 2 ? eqnn__plane_lift : eqnn__screw_lift;
    g->f.product = eqnn__motion_product;
    g->f.inverse = eqnn__motion_inverse;
    g->f.between = eqnn__motion_between;
    g->f.act = eqnn__motion_act;
}

static void eqnn__lie_canonical(eqnn_lie *g, int turns)
{
    eqnn__lie_sizes(g, 2, 3, 3, 0);
    g->turns = turns;
    g->f.draws = 1;
    g->f.exp = eqnn__canonical_exp;
    g->f.log = eqnn__canonical_log;
    g->f.product = eqnn__canonical_product;
    g->f.inverse = eqnn__canonical_inverse;
    g->f.between = eqnn__canonical_between;
    g->f.lift = eqnn__canonical_lift;
    g->f.act = eqnn__canonical_act;
}

/* "SE(2)_canonical(4)" is "SE2_canonical" and 4: parentheses go, in pairs; the last number is told
   from the word; -1 when there is none. Gives the number. */
static int eqnn__lie_word(const char *name, char word[32])
{
    size_t n = 0, digits;
    int number = -1;
    for (; *name && *name != ')' && n < 31; name++) {
        if (*name != '(') {
            word[n++] = *name;
            continue;
        }
        digits = strspn(name + 1, "0123456789");
        if (!digits || name[digits + 1] != ')' || n + digits > 31) break;
        memcpy(word + n, name + 1, digits);
        n += digits;
        name += digits + 1;
    }
    word[*name ? 0 : n] = 0;
    for (digits = strlen(word); digits > 0 && isdigit((unsigned char)word[digits - 1]);) digits--;
    if (word[digits] && strlen(word + digits) < 4) {
        number = atoi(word + digits);
        word[digits] = 0;
    }
    return number;
}

/* 0 when there is no such group */
static int eqnn__lie_known(eqnn_lie *g, const char *word, int n)
{
    int d = n < 0 ? 2 : n, sized = d >= 1 && d <= 16;
    if (!strcmp(word, "T") && n > 0 && sized) eqnn__lie_shift(g, d, d, 0);
    else if (!strcmp(word, "Tx") && sized) eqnn__lie_shift(g, d, 1, 0);
    else if (!strcmp(word, "Ty") && sized && d >= 2) eqnn__lie_shift(g, d, 1, 1);
    else if (!strcmp(word, "Trivial") && n > 0 && sized) eqnn__lie_trivial(g, d);
    else if (!strcmp(word, "SO") && n == 2) eqnn__lie_circle(g);
    else if (!strcmp(word, "SO") && n == 3) eqnn__lie_sphere(g);
    else if (!strcmp(word, "RxSO") && n == 2) eqnn__lie_polar(g);
    else if (!strcmp(word, "SE") && (n == 2 || n == 3)) eqnn__lie_motion(g, n);
    else if (!strcmp(word, "SE2_canonical") && n > 0) eqnn__lie_canonical(g, n);
    else if (!strcmp(word, "Rx") && d == 2) eqnn__lie_scale(g, 2);
    else if (!strcmp(word, "Rx_published") && d == 2) eqnn__lie_scale(g, 1);
    else if (!strcmp(word, "RxSQ") && n < 0) eqnn__lie_squeeze(g, 2);
    else if (!strcmp(word, "SQ") && n < 0) eqnn__lie_squeeze(g, 1);
    else return 0;
    return 1;
}

EQNN_API const eqnn_lie *eqnn_lie_make(eqnn_ctx *c, const char *name)
{
    char word[32];
    if (!c || c->failed || !eqnn__given(c, name != NULL, "lie_make", "the name is")) return NULL;
    eqnn_lie *g = eqnn__lie_find(c, name);
    if (g) return g;
    int n = eqnn__lie_word(name, word);
    if (!(g = eqnn__lie_new(c, name))) return NULL;
    if (eqnn__lie_known(g, word, n)) return eqnn__lie_keep(g);
    eqnn__fail(c,
               "lie group \"%.60s\" is not known; known are Trivial(d), T(d), Tx(d), Ty(d), SO(2), "
               "RxSO(2), Rx, Rx_published, SE(2), SO(3), SE(3), RxSQ, SQ, SE(2)_canonical(n), d up "
               "to 16, and those of eqnn_lie_of",
               name);
    return NULL;
}

/* A number in the last parentheses is alpha when a digit stands before them ("SE2(1)") or a point
   or a slash in it ("Rx(.1)", "RxSQ(1/3)"). */
EQNN_API const eqnn_lie *eqnn_lie_weighed(eqnn_ctx *c, const char *name, double *alpha)
{
    char group[32];
    const char *open = name ? strrchr(name, '(') : NULL;
    if (!eqnn__given(c, alpha != NULL, "lie_weighed", "the place for alpha is")) return NULL;
    *alpha = 0.2;
    if (!open || open == name || strlen(name) > 31) return eqnn_lie_make(c, name);
    size_t n = (size_t)(open - name);
    if (!isdigit((unsigned char)open[-1]) && !strpbrk(open, "./")) return eqnn_lie_make(c, name);
    const char *end;
    double value = eqnn__decimal(open + 1, &end);
    if (end != open + 1) *alpha = value;
    if (end != open + 1 && *end == '/') *alpha /= eqnn__decimal(end + 1, &end);
    if (strcmp(end, ")") || !(*alpha >= 0 && *alpha <= 1)) {
        eqnn_fail(c, "lie group \"%s\": alpha is a number from 0 to 1", name);
        return NULL;
    }
    memcpy(group, name, n);
    group[n] = 0;
    return eqnn_lie_make(c, group);
}

/* What is wrong with a user's group, or NULL. */
static const char *eqnn__lie_wrong(const eqnn_lie_opts *f)
{
    if (f->point_dim < 1 || f->lie_dim < 1) return "needs point_dim and lie_dim";
    if (f->cols < 0 || f->q_dim < 0 || f->draws < 0) return "has a negative size";
    if (!f->exp || !f->log || !f->lift) return "needs exp, log and lift";
    if (f->alpha_first < 0 || f->alpha_cols < 0 || f->alpha_first + f->alpha_cols > f->lie_dim)
        return "has alpha columns outside the algebra's";
    if (!f->draws && (f->normal || f->even)) return "has .normal or .even, but no .draws";
    if (!f->q_dim && f->apart) return "has .apart, but no columns .q_dim that tell orbits apart";
    if (f->cols && f->cols != f->point_dim * f->point_dim && (!f->product || !f->act))
        return "needs product and act, as its elements are no matrices";
    return NULL;
}

EQNN_API const eqnn_lie *eqnn_lie_of(eqnn_ctx *c, const char *name, const eqnn_lie_opts *opts)
{
    if (!c || c->failed || !name || !opts) return NULL;
    const char *wrong = eqnn__lie_wrong(opts);
    eqnn_lie *g = eqnn__lie_find(c, name);
    if (g) wrong = "is made already";
    if (wrong) eqnn__fail(c, "lie group \"%.60s\" %s", name, wrong);
    if (wrong || !(g = eqnn__lie_new(c, name))) return NULL;
    g->f = *opts;
    return eqnn__lie_keep(g);
}

EQNN_API const char *eqnn_lie_name(const eqnn_lie *g) { return g ? g->name : ""; }
EQNN_API int eqnn_lie_dim(const eqnn_lie *g) { return g ? g->f.lie_dim : 0; }
EQNN_API int eqnn_lie_cols(const eqnn_lie *g) { return g ? g->f.cols : 0; }
EQNN_API int eqnn_lie_point_dim(const eqnn_lie *g) { return g ? g->f.point_dim : 0; }
EQNN_API int eqnn_lie_q_dim(const eqnn_lie *g) { return g ? g->f.q_dim : 0; }
EQNN_API int eqnn_lie_pair_dim(const eqnn_lie *g) { return g ? g->f.lie_dim + 2 * g->f.q_dim : 0; }
EQNN_API int eqnn_lie_draws(const eqnn_lie *g) { return g ? g->f.draws : 0; }
EQNN_API const void *eqnn_lie_user(const eqnn_lie *g) { return g ? g->f.user : NULL; }

/* --- the operations --- */

/* 1 when x are no rows of this group's */
static int eqnn__lie_bad(const eqnn_lie *g, const eqnn_tensor *x, int cols, const char *op,
                         const char *what)
{
    if (!g || g->ctx->failed) return 1;
    if (!x) {
        eqnn__fail(g->ctx, "%s of %s: no %s (NULL)", op, g->name, what);
        return 1;
    }
    if (eqnn__bad(x, op)) return 1;
    if (x->ctx == g->ctx && x->cols == cols) return 0;
    if (eqnn__at_home(x->ctx, g->ctx, op, "the group"))
        eqnn__fail(x->ctx, "%s of %s: %s have %d columns, got [%d,%d]", op, g->name, what, cols,
                   x->rows, x->cols);
    return 1;
}

/* The same for elements that a caller gave; NULL of a failed call is passed on in silence. */
static int eqnn__elements_bad(const eqnn_lie *g, const eqnn_tensor *u, const char *op)
{
    return !g || !u || eqnn__lie_bad(g, u, g->f.cols, op, "elements");
}

/* Both get the same number of rows. */
static int eqnn__lie_rows(eqnn_tensor **a, eqnn_tensor **b, const char *op)
{
    eqnn_tensor *x[2] = { *a, *b };
    int rows = eqnn__stretch_rows(x, 2);
    if (rows < 0) {
        eqnn__fail(x[0]->ctx, "%s: %d and %d rows", op, x[0]->rows, x[1]->rows);
        return 0;
    }
    if (x[0]->rows != rows) *a = eqnn_stretch(x[0], rows, x[0]->cols);
    if (x[1]->rows != rows) *b = eqnn_stretch(x[1], rows, x[1]->cols);
    return *a && *b;
}

EQNN_API eqnn_tensor *eqnn_lie_exp(const eqnn_lie *g, eqnn_tensor *a)
{
    if (!a || eqnn__lie_bad(g, a, g ? g->f.lie_dim : 0, "lie_exp", "coordinates")) return NULL;
    eqnn_tensor *u = g->f.exp(g, a);
    return eqnn__lie_bad(g, u, g->f.cols, "lie_exp", "elements") ? NULL : u;
}

EQNN_API eqnn_tensor *eqnn_lie_log(const eqnn_lie *g, eqnn_tensor *u)
{
    if (eqnn__elements_bad(g, u, "lie_log")) return NULL;
    eqnn_tensor *a = g->f.log(g, u);
    return eqnn__lie_bad(g, a, g->f.lie_dim, "lie_log", "coordinates") ? NULL : a;
}

EQNN_API eqnn_tensor *eqnn_lie_inverse(const eqnn_lie *g, eqnn_tensor *u)
{
    return eqnn__elements_bad(g, u, "lie_inverse") ? NULL : g->f.inverse(g, u);
}

EQNN_API eqnn_tensor *eqnn_lie_product(const eqnn_lie *g, eqnn_tensor *u, eqnn_tensor *v)
{
    const char *op = "lie_product";
    if (!v || eqnn__elements_bad(g, u, op) || eqnn__elements_bad(g, v, op)) return NULL;
    return eqnn__lie_rows(&u, &v, op) ? g->f.product(g, u, v) : NULL;
}

EQNN_API eqnn_tensor *eqnn_lie_act(const eqnn_lie *g, eqnn_tensor *u, eqnn_tensor *x)
{
    const char *op = "lie_act";
    if (!x || eqnn__elements_bad(g, u, op) || eqnn__lie_bad(g, x, g->f.point_dim, op, "points"))
        return NULL;
    return eqnn__lie_rows(&u, &x, op) ? g->f.act(g, u, eqnn_as(x, NULL)) : NULL;
}

/* What an element does to zero and to the unit vectors tells its matrix. */
EQNN_API eqnn_tensor *eqnn_lie_matrix(const eqnn_lie *g, eqnn_tensor *u)
{
    if (eqnn__elements_bad(g, u, "lie_matrix")) return NULL;
    int d = g->f.point_dim, side = d + 1, n = u->rows, order[17 * 17];
    if (d > 16) return eqnn__fail(g->ctx, "lie_matrix of %s: more than 16 coordinates", g->name);
    eqnn_tensor *zero = eqnn_zeros(g->ctx, n, d), *col[18], *t = eqnn_lie_act(g, u, zero);
    for (int k = 0; k < d; k++) {
        eqnn_tensor *e = eqnn_collect_columns(eqnn_full(g->ctx, n, 1, 1),
                                              eqnn_ints_make(g->ctx, 1, &k, d, 0));
        col[k] = eqnn_sub(eqnn_lie_act(g, u, e), t);
    }
    col[d] = t;
    col[d + 1] = eqnn_concat(zero, eqnn_full(g->ctx, n, 1, 1));
    if (g->ctx->failed) return NULL;
    for (int i = 0; i < side; i++)
        for (int k = 0; k < side; k++) order[i * side + k] = i == d ? side * d + k : k * d + i;
    return eqnn_columns(eqnn_concat_n(col, d + 2),
                        eqnn_ints_make(g->ctx, side * side, order, side * side, 0));
}

EQNN_API eqnn_tensor *eqnn_lie_bracket(const eqnn_lie *g, eqnn_tensor *a, eqnn_tensor *b)
{
    const char *op = "lie_bracket";
    if (!g || !a || !b) return NULL;
    if (eqnn__lie_bad(g, a, g->f.lie_dim, op, "coordinates") ||
        eqnn__lie_bad(g, b, g->f.lie_dim, op, "coordinates") || !eqnn__lie_rows(&a, &b, op))
        return NULL;
    if (!g->f.bracket) return eqnn__fail(g->ctx, "lie_bracket: %s has none", g->name);
    return g->f.bracket(g, a, b);
}

/* a + b + [a,b]/2 + ([a,[a,b]] + [b,[b,a]])/12 - [b,[a,[a,b]]]/24 (Dynkin 1947) */
EQNN_API eqnn_tensor *eqnn_lie_bch(const eqnn_lie *g, eqnn_tensor *a, eqnn_tensor *b, int order)
{
    if (!g || !a || !b) return NULL;
    if (order < 1 || order > 4)
        return eqnn__fail(g->ctx, "lie_bch: order %d; 1 to 4 are known", order);
    eqnn_tensor *ab = eqnn_lie_bracket(g, a, b), *aab = eqnn_lie_bracket(g, a, ab);
    eqnn_tensor *bab = eqnn_lie_bracket(g, b, ab), *baab = eqnn_lie_bracket(g, b, aab);
    eqnn_tensor *sum = eqnn_add(a, b);
    if (order > 1) sum = eqnn_add(sum, eqnn_scale(ab, 0.5));
    if (order > 2) sum = eqnn_add(sum, eqnn_scale(eqnn_sub(aab, bab), 1. / 12));
    if (order > 3) sum = eqnn_add(sum, eqnn_scale(baab, -1. / 24));
    return sum;
}

/* --- lifts --- */

EQNN_API int eqnn_lie_lift_given(const eqnn_lie *g, eqnn_tensor *points, eqnn_tensor *draws,
                                 int samples, eqnn_tensor **u, eqnn_tensor **q)
{
    const char *op = "lie_lift";
    eqnn_tensor *orbit = NULL, *x;
    if (u) *u = NULL;
    if (q) *q = NULL;
    if (g && !eqnn__given(g->ctx, u != NULL, op, "the place for the elements is")) return 0;
    if (!g || !points || eqnn__lie_bad(g, points, g->f.point_dim, op, "points")) return 0;
    if (samples < 1 || (samples > 1 && !g->f.draws) || (g->turns && samples != g->turns)) {
        eqnn__fail(g->ctx, "lie_lift of %s: %d samples, it takes %s", g->name, samples,
                   g->turns ? "as many as it has angles" : g->f.draws ? "1 or more" : "1");
        return 0;
    }
    if (g->f.draws && eqnn__lie_bad(g, draws, g->f.draws, op, "random numbers")) return 0;
    if (g->f.draws && (double)draws->rows != (double)points->rows * samples) {
        eqnn__fail(g->ctx, "lie_lift of %s: %d rows of random numbers for %d points, %d samples",
                   g->name, draws->rows, points->rows, samples);
        return 0;
    }
    x = eqnn_as(points, NULL);
    if (samples > 1) x = eqnn_repeat(x, samples);
    *u = g->f.lift(g, x, draws, &orbit);
    if (!*u || eqnn__lie_bad(g, *u, g->f.cols, op, "elements")) return 0;
    if (g->f.q_dim && eqnn__lie_bad(g, orbit, g->f.q_dim, op, "orbits")) return 0;
    if (q && g->f.q_dim) *q = orbit;
    return 1;
}

/* s/samples of all points, after one number of each unless the group is canonical; in [0,1) */
static eqnn_tensor *eqnn__lie_even(const eqnn_lie *g, const char *name, int points, int samples)
{
    size_t n = (size_t)points * (size_t)samples, k = (size_t)g->f.draws;
    double *v = (double *)eqnn__take(g->ctx, n * k, sizeof *v);
    double *first = (double *)eqnn__take(g->ctx, (size_t)points * k, sizeof *first);
    if (first && !g->turns) eqnn_random(g->ctx, name, 0, (size_t)points * k, first);
    for (size_t i = 0; v && first && i < n * k; i++) {
        size_t row = i / k, sample = row % (size_t)samples;
        v[i] = first[row / (size_t)samples * k + i % k] + (double)sample / samples;
        if (v[i] >= 1) v[i] -= 1;
    }
    eqnn_tensor *x = v && first ? eqnn_from_double(g->ctx, (int)n, (int)k, v) : NULL;
    eqnn__drop(g->ctx, first, (size_t)points * k, sizeof *first);
    eqnn__drop(g->ctx, v, n * k, sizeof *v);
    return x;
}

EQNN_API int eqnn_lie_lift(const eqnn_lie *g, eqnn_tensor *points, const char *name, int samples,
                           eqnn_tensor **u, eqnn_tensor **q)
{
    eqnn_tensor *draws = NULL;
    if (u) *u = NULL;
    if (q) *q = NULL;
    if (!g || !points || g->ctx->failed) return 0;
    if (!name && g->f.draws) {
        eqnn__fail(g->ctx, "lie_lift of %s: its random numbers need a name", g->name);
        return 0;
    }
    int n = points->rows, rows = samples > 0 && n <= INT_MAX / samples ? n * samples : 0;
    if (g->f.draws && samples > 0 && (g->f.even || g->turns))
        draws = eqnn__lie_even(g, name, n, samples);
    else if (g->f.draws && g->f.normal) draws = eqnn_normal(g->ctx, name, rows, g->f.draws);
    else if (g->f.draws) draws = eqnn_uniform(g->ctx, name, rows, g->f.draws);
    return eqnn_lie_lift_given(g, points, draws, samples, u, q);
}

/* --- pairs --- */

enum { EQNN__LIE_MANY = 1 << 16 }; /* of more edges not everything is remembered */

/* 1 when elements and orbits are no lift of this group's */
static int eqnn__lie_bad_lift(const eqnn_lie *g, eqnn_tensor *u, eqnn_tensor *q, const char *op)
{
    if (eqnn__elements_bad(g, u, op)) return 1;
    if (g->f.q_dim == 0) return 0;
    if (eqnn__lie_bad(g, q, g->f.q_dim, op, "orbits")) return 1;
    if (q->rows == u->rows) return 0;
    eqnn__fail(g->ctx, "%s of %s: %d elements and %d orbits", op, g->name, u->rows, q->rows);
    return 1;
}

/* Row by row log(v^-1 u), p, q: u, p of the target, v, q of the source. */
static eqnn_tensor *eqnn__lie_pair_rows(const eqnn_lie *g, eqnn_tensor *u, eqnn_tensor *p,
                                        eqnn_tensor *v, eqnn_tensor *q)
{
    eqnn_tensor *part[3] = { NULL, p, q };
    int first = g->f.lie_dim ? 0 : 1; /* Trivial has no logarithm */
    if (!first && !(part[0] = eqnn_lie_log(g, g->f.between(g, v, u)))) return NULL;
    return g->f.q_dim ? eqnn_concat_n(part + first, 3 - first) : part[0];
}

EQNN_API eqnn_tensor *eqnn_lie_between(const eqnn_lie *g, eqnn_tensor *u, const eqnn_graph *graph)
{
    if (!graph || eqnn__elements_bad(g, u, "lie_between")) return NULL;
    eqnn_tensor *v = eqnn_gather(u, graph), *to = eqnn_gather_target(u, graph);
    return v && to ? g->f.between(g, v, to) : NULL;
}

EQNN_API eqnn_tensor *eqnn_lie_near(const eqnn_lie *g, eqnn_tensor *u)
{
    eqnn_tensor *p[2];
    if (eqnn__elements_bad(g, u, "lie_near")) return NULL;
    if (g->f.inverse == eqnn__quaternion_inverse) return eqnn__quaternion_near(u);
    if (g->f.inverse != eqnn__motion_inverse || g->f.point_dim == 2) return u;
    eqnn__lie_parts(u, 4, p);
    return eqnn_concat(eqnn__quaternion_near(p[0]), p[1]);
}

typedef struct eqnn__lie_ends {
    const eqnn_lie *g;
    const eqnn_graph *graph;
} eqnn__lie_ends;

/* x: elements and, where the group has them, orbits */
static eqnn_tensor *eqnn__lie_pairs_of(eqnn_tensor *const *x, int n, void *user)
{
    const eqnn__lie_ends *u = (const eqnn__lie_ends *)user;
    eqnn_tensor *from[2] = { NULL, NULL }, *to[2] = { NULL, NULL };
    for (int i = 0; i < n; i++) {
        from[i] = eqnn_gather(x[i], u->graph);
        to[i] = eqnn_gather_target(x[i], u->graph);
        if (!from[i] || !to[i]) return NULL;
    }
    return eqnn__lie_pair_rows(u->g, to[0], to[1], from[0], from[1]);
}

/* Of SE(3)'s logarithm the tape holds about a hundred numbers an edge; of many edges it does
   not. */
EQNN_API eqnn_tensor *eqnn_lie_pairs(const eqnn_lie *g, eqnn_tensor *u, eqnn_tensor *q,
                                     const eqnn_graph *graph)
{
    if (!graph || eqnn__lie_bad_lift(g, u, q, "lie_pairs")) return NULL;
    eqnn_tensor *x[2] = { u, q };
    eqnn__lie_ends user = { g, graph };
    int n = g->f.q_dim > 0 ? 2 : 1;
    if (graph->edges <= EQNN__LIE_MANY) return eqnn__lie_pairs_of(x, n, &user);
    return eqnn_checkpoint(eqnn__lie_pairs_of, x, n, &user, sizeof user);
}

/* sum (NULL: nothing yet) + weight length */
static eqnn_tensor *eqnn__lie_weigh(eqnn_tensor *sum, eqnn_tensor *length, double weight)
{
    length = eqnn_scale(length, weight);
    return sum ? eqnn_add(sum, length) : length;
}

EQNN_API eqnn_tensor *eqnn_lie_distance(const eqnn_lie *g, eqnn_tensor *pairs, double alpha)
{
    if (!g || !pairs) return NULL;
    int a = g->f.lie_dim, q = g->f.q_dim, first = g->f.alpha_first, n = g->f.alpha_cols;
    if (eqnn__lie_bad(g, pairs, a + 2 * q, "lie_distance", "pairs")) return NULL;
    if (!(alpha >= 0 && alpha <= 1))
        return eqnn__fail(g->ctx, "lie_distance: alpha is %g, not in 0..1", alpha);
    if (g->turns) return eqnn__fail(g->ctx, "lie_distance: %s has none", g->name);
    eqnn_tensor *sum = NULL, *rest = NULL;
    if (first > 0) rest = eqnn_slice(pairs, 0, first);
    if (first + n < a) {
        eqnn_tensor *last = eqnn_slice(pairs, first + n, a - first - n);
        rest = rest ? eqnn_concat(rest, last) : last;
    }
    if (n > 0) sum = eqnn__lie_weigh(sum, eqnn_norm(eqnn_slice(pairs, first, n)), alpha);
    if (rest) sum = eqnn__lie_weigh(sum, eqnn_norm(rest), 1 - alpha);
    if (q > 0) {
        eqnn_tensor *to = eqnn_slice(pairs, a, q), *from = eqnn_slice(pairs, a + q, q);
        sum = eqnn__lie_weigh(sum, g->f.apart(g, to, from), 1 - alpha);
    }
    return sum;
}

/* --- neighbours --- */

/* out[i] = distance of rows to[i], from[i], counted from the row `first` of an example of `rows`,
   so that the time does not depend on other examples; leaves nothing in the step's memory */
static int eqnn__lie_distances(const eqnn_lie *g, eqnn_tensor *u, eqnn_tensor *q, double alpha,
                               int first, int rows, int n, const int *to, const int *from,
                               double *out)
{
    eqnn_ctx *c = g->ctx;
    eqnn_mark mark = eqnn_mark_make(c);
    int recording = eqnn__pause(c), orbits = g->f.q_dim > 0;
    u = eqnn_slice_rows(u, first, rows);
    if (orbits) q = eqnn_slice_rows(q, first, rows);
    eqnn_ints *i = eqnn__ints_make(c, n, to, rows, 0, 0); /* no gradient: no inverse */
    eqnn_ints *j = eqnn__ints_make(c, n, from, rows, 0, 0);
    eqnn_tensor *ui = eqnn_take(u, i), *uj = eqnn_take(u, j);
    eqnn_tensor *qi = orbits ? eqnn_take(q, i) : NULL, *qj = orbits ? eqnn_take(q, j) : NULL;
    eqnn_tensor *pairs = c->failed ? NULL : eqnn__lie_pair_rows(g, ui, qi, uj, qj);
    eqnn_tensor *d = eqnn_lie_distance(g, pairs, alpha);
    eqnn_real *v = (eqnn_real *)eqnn__take(c, (size_t)n, sizeof *v);
    int good = d && v && eqnn_read(d, v);
    for (int k = 0; good && k < n; k++) out[k] = (double)v[k];
    eqnn__drop(c, v, (size_t)n, sizeof *v);
    eqnn__resume(c, recording);
    eqnn_rewind(mark, NULL);
    return good;
}

/* Where each example's nodes begin: [examples+1], of the heap; *examples gets how many. */
static int *eqnn__lie_examples(eqnn_ctx *c, int nodes, const int *example, int *examples,
                               const char *op)
{
    int last = example && nodes > 0 ? example[nodes - 1] : example ? -1 : 0;
    if (last < INT_MAX) last++;
    if (*examples < 0) return (int *)eqnn__fail(c, "%s: .examples is %d", op, *examples);
    if (*examples == 0) *examples = last;
    int *first = (int *)eqnn__take(c, (size_t)*examples + 1, sizeof *first);
    int sorted = first && *examples >= last;
    for (int i = 0; sorted && i < nodes; i++) {
        int e = example ? example[i] : 0;
        sorted = e >= 0 && e < *examples && (i == 0 || !example || example[i - 1] <= e);
        if (sorted) first[e + 1]++;
    }
    for (int e = 0; sorted && e < *examples; e++) first[e + 1] += first[e];
    if (sorted) return first;
    if (first) eqnn__drop(c, first, (size_t)*examples + 1, sizeof *first);
    eqnn__fail(c, "%s: examples must be sorted and of 0..%d", op, *examples - 1);
    return NULL;
}

/* A neighbour and how far it is. */
typedef struct eqnn__lie_neighbour { double d, chance; int node; } eqnn__lie_neighbour;

static int eqnn__lie_neighbour_by_distance(const void *a, const void *b)
{
    const eqnn__lie_neighbour *x = (const eqnn__lie_neighbour *)a;
    const eqnn__lie_neighbour *y = (const eqnn__lie_neighbour *)b;
    return x->d != y->d ? (x->d < y->d ? -1 : 1) : x->node - y->node;
}

static int eqnn__lie_neighbour_by_chance(const void *a, const void *b)
{
    const eqnn__lie_neighbour *x = (const eqnn__lie_neighbour *)a;
    const eqnn__lie_neighbour *y = (const eqnn__lie_neighbour *)b;
    return x->chance != y->chance ? (x->chance > y->chance ? -1 : 1) : x->node - y->node;
}

/* Brings the nearest to the front, in no order (Hoare 1961, doi:10.1145/366622.366647). */
static void eqnn__lie_neighbours_select(eqnn__lie_neighbour *list, int n, int nearest)
{
    int low = 0, high = n - 1;
    while (low < high) {
        eqnn__lie_neighbour pivot = list[low + (high - low) / 2];
        int i = low, j = high;
        while (i <= j) {
            while (eqnn__lie_neighbour_by_distance(&list[i], &pivot) < 0) i++;
            while (eqnn__lie_neighbour_by_distance(&pivot, &list[j]) < 0) j--;
            if (i > j) break;
            eqnn__lie_neighbour swap = list[i];
            list[i++] = list[j];
            list[j--] = swap;
        }
        if (nearest - 1 <= j) high = j;
        else if (nearest - 1 >= i) low = i;
        else break;
    }
}

/* Leaves the first of the list: the nearest, those within the radius, then some at random. */
static int eqnn__lie_neighbours_choose(const eqnn_lie_graph_opts *o, eqnn__lie_neighbour *list,
                                       int n)
{
    int most = n, kept = 0;
    if (o->nearest > 0 && o->nearest < most) most = o->nearest;
    if (o->fill > 0 && o->fill * n < most) most = (int)ceil(o->fill * n);
    if (most < n) eqnn__lie_neighbours_select(list, n, most);
    for (int i = 0; i < most; i++)
        if (!(o->radius > 0) || list[i].d < o->radius) list[kept++] = list[i];
    if (o->most <= 0 || kept <= o->most) return kept;
    qsort(list, (size_t)kept, sizeof *list, eqnn__lie_neighbour_by_chance);
    return o->most;
}

/* One piece, for of two only the upper one could grow in its place in a caller's buffer:

       | sources of count edges .. | targets of count edges .. |
       0                           room                        2 room */
typedef struct eqnn__lie_edges { int *edge; size_t count, room; } eqnn__lie_edges;

static int eqnn__lie_neighbours_room(eqnn_ctx *c, eqnn__lie_edges *e, int more)
{
    size_t want = e->count + (size_t)more, room = want > 2 * e->room ? want : 2 * e->room;
    if (want <= e->room) return 1;
    size_t unit = 2 * sizeof *e->edge;
    int *edge = (int *)eqnn__heap(c, e->edge, e->room * unit, room * unit);
    if (!edge) return 0;
    if (e->count) memmove(edge + room, edge + e->room, e->count * sizeof *edge);
    e->edge = edge;
    e->room = room;
    return 1;
}

/* What one example's search needs. */
typedef struct eqnn__lie_neighbours_job {
    const eqnn_lie *g;
    eqnn_tensor *u, *q;
    double alpha;
    const eqnn_lie_graph_opts *o;
    int first, n;              /* the example's nodes                       */
    int *to, *from;            /* [pairs] at most: targets and sources      */
    double *d, *chance;        /* [pairs] distances; [most] of one target   */
    eqnn__lie_neighbour *list; /* [most]                                    */
    size_t most, pairs;        /* largest n; largest n times rows of a run  */
} eqnn__lie_neighbours_job;

static eqnn_lie_graph_opts eqnn__lie_graph_defaults(const eqnn_lie_graph_opts *opts)
{
    eqnn_lie_graph_opts o;
    memset(&o, 0, sizeof o);
    if (opts) o = *opts;
    if (!o.name) o.name = "neighbours";
    return o;
}

/* Does it matter who is near? */
static int eqnn__lie_neighbours_limited(const eqnn_lie_graph_opts *o)
{
    return o->radius > 0 || o->nearest > 0 || o->fill > 0;
}

/* The neighbours of targets at..at+rows-1 of the example. */
static int eqnn__lie_neighbours_run(eqnn__lie_neighbours_job *j, int at, int rows,
                                    eqnn__lie_edges *e)
{
    eqnn_ctx *c = j->g->ctx;
    for (int i = 0; i < rows * j->n; i++)
        j->to[i] = at + i / j->n, j->from[i] = i % j->n;
    if (eqnn__lie_neighbours_limited(j->o) &&
        !eqnn__lie_distances(j->g, j->u, j->q, j->alpha, j->first, j->n, rows * j->n, j->to,
                             j->from, j->d))
        return 0;
    for (int r = 0; r < rows; r++) {
        int target = j->first + at + r;
        if (j->o->most > 0) {
            char full[160];
            snprintf(full, sizeof full, "%.120s.%d", j->o->name, target);
            eqnn_random(c, full, 0, (size_t)j->n, j->chance);
        }
        for (int i = 0; i < j->n; i++) {
            j->list[i].d = j->d[r * j->n + i];
            j->list[i].chance = j->chance[i];
            j->list[i].node = j->first + i;
        }
        int kept = eqnn__lie_neighbours_choose(j->o, j->list, j->n);
        if (!eqnn__lie_neighbours_room(c, e, kept)) return 0;
        for (int i = 0; i < kept; i++) {
            e->edge[e->count] = j->list[i].node;
            e->edge[e->room + e->count++] = target;
        }
    }
    return 1;
}

/* In runs of about 64 Ki pairs. */
static int eqnn__lie_neighbours_rows(int n)
{
    int rows = n > 65536 ? 1 : 65536 / (n > 0 ? n : 1);
    return rows > n ? n : rows;
}

/* Room for the largest of all examples, below the edges: they grow while it is in use. 0: none. */
static int eqnn__lie_neighbours_open(eqnn__lie_neighbours_job *j, const int *first)
{
    eqnn_ctx *c = j->g->ctx;
    for (int k = 0; k < j->o->examples; k++) {
        size_t n = (size_t)(first[k + 1] - first[k]);
        size_t pairs = n * (size_t)eqnn__lie_neighbours_rows((int)n);
        if (n > j->most) j->most = n;
        if (pairs > j->pairs) j->pairs = pairs;
    }
    j->to = (int *)eqnn__take(c, j->pairs, sizeof *j->to);
    j->from = (int *)eqnn__take(c, j->pairs, sizeof *j->from);
    j->d = (double *)eqnn__take(c, j->pairs, sizeof *j->d);
    j->chance = (double *)eqnn__take(c, j->most, sizeof *j->chance);
    j->list = (eqnn__lie_neighbour *)eqnn__take(c, j->most, sizeof *j->list);
    return j->to && j->from && j->d && j->chance && j->list;
}

static void eqnn__lie_neighbours_close(eqnn__lie_neighbours_job *j)
{
    eqnn_ctx *c = j->g->ctx;
    eqnn__drop(c, j->list, j->most, sizeof *j->list);
    eqnn__drop(c, j->chance, j->most, sizeof *j->chance);
    eqnn__drop(c, j->d, j->pairs, sizeof *j->d);
    eqnn__drop(c, j->from, j->pairs, sizeof *j->from);
    eqnn__drop(c, j->to, j->pairs, sizeof *j->to);
}

static int eqnn__lie_neighbours_example(eqnn__lie_neighbours_job *j, eqnn__lie_edges *e)
{
    int rows = eqnn__lie_neighbours_rows(j->n), good = 1;
    for (int at = 0; good && at < j->n; at += rows)
        good = eqnn__lie_neighbours_run(j, at, at + rows < j->n ? rows : j->n - at, e);
    return good;
}

EQNN_API const eqnn_graph *eqnn_lie_graph(const eqnn_lie *g, eqnn_tensor *u, eqnn_tensor *q,
                                          double alpha, const eqnn_lie_graph_opts *opts)
{
    eqnn_lie_graph_opts o = eqnn__lie_graph_defaults(opts);
    eqnn_graph_opts graph;
    eqnn__lie_neighbours_job job;
    eqnn__lie_edges e;
    memset(&graph, 0, sizeof graph);
    memset(&job, 0, sizeof job);
    memset(&e, 0, sizeof e);
    if (eqnn__lie_bad_lift(g, u, q, "lie_graph")) return NULL;
    if (!(o.radius >= 0) || !(o.fill >= 0 && o.fill <= 1) || o.nearest < 0 || o.most < 0)
        return (const eqnn_graph *)eqnn__fail(
            g->ctx, "lie_graph: radius %g, nearest %d, fill %g, most %d: nothing may be negative, "
                    "and fill is at most 1", o.radius, o.nearest, o.fill, o.most);
    if (!eqnn__no_use(g->ctx, "lie_graph", opts && opts->name && !o.most, ".name", "without .most",
                      "the name of the random numbers for that"))
        return NULL;
    if (!(alpha >= 0 && alpha <= 1))
        return (const eqnn_graph *)eqnn__fail(g->ctx, "lie_graph: alpha is %g, not in 0..1", alpha);
    int *first = eqnn__lie_examples(g->ctx, u->rows, o.example, &o.examples, "lie_graph");
    job.g = g, job.u = u, job.q = q, job.alpha = alpha, job.o = &o;
    int good = first && eqnn__lie_neighbours_open(&job, first);
    for (int k = 0; good && k < o.examples; k++) {
        job.first = first[k];
        job.n = first[k + 1] - first[k];
        if (job.n > 0) good = eqnn__lie_neighbours_example(&job, &e);
    }
    if (good && e.count > INT_MAX)
        good = 0, eqnn__fail(g->ctx, "lie_graph: too many edges");
    graph.sources = graph.targets = u->rows;
    graph.example = o.example, graph.examples = o.examples, graph.keep = o.keep;
    const eqnn_graph *made =
        good ? eqnn_graph_make(g->ctx, (int)e.count, e.edge, e.edge + e.room, &graph) : NULL;
    eqnn__heap_free(g->ctx, e.edge, 2 * e.room * sizeof *e.edge);
    eqnn__lie_neighbours_close(&job);
    if (first) eqnn__drop(g->ctx, first, (size_t)o.examples + 1, sizeof *first);
    return made;
}

/* --- farthest points --- */

/* Nodes first..first+n-1, m of them into out; d, best [n] are working memory. */
static void eqnn__farthest_of(eqnn_distances f, void *user, int first, int n, int start, int m,
                              double *d, double *best, int *out)
{
    int at = start;
    for (int i = 0; i < n; i++) best[i] = HUGE_VAL;
    for (int k = 0; k < m; k++) {
        out[k] = first + at;
        best[at] = -1; /* chosen: coincident points come last, but no point comes twice */
        f(user, first + at, first, n, d);
        for (int i = 0; i < n; i++)
            if (best[i] >= 0 && d[i] < best[i]) best[i] = d[i];
        for (int i = at = 0; i < n; i++)
            if (best[i] > best[at]) at = i;
    }
}

/* How many of n nodes: a share of them to the nearest whole number, halves to the even one. */
static int eqnn__farthest_count(int n, double fraction, int count)
{
    double x = fraction * n, whole = floor(x);
    if (count > 0) return count < n ? count : n;
    if (x - whole > 0.5 || (x - whole == 0.5 && fmod(whole, 2) != 0)) whole += 1;
    return whole < n ? (int)whole : n;
}

/* The example's first node: given, random or 0; -1 and an error where there is no such node */
static int eqnn__farthest_start(eqnn_ctx *c, const eqnn_farthest_opts *o, int example, int n)
{
    double u = 0;
    char name[160];
    if (o->start && (o->start[example] < 0 || o->start[example] >= n)) {
        eqnn__fail(c, "farthest: example %d of %d nodes cannot start at %d", example, n,
                   o->start[example]);
        return -1;
    }
    if (o->start) return o->start[example];
    if (!o->name) return 0;
    snprintf(name, sizeof name, "%.120s.%d", o->name, example);
    eqnn_random(c, name, 0, 1, &u);
    return (int)(u * n);
}

EQNN_API eqnn_ints *eqnn_farthest(eqnn_ctx *c, int nodes, double fraction, eqnn_distances f,
                                  void *user, const eqnn_farthest_opts *opts)
{
    eqnn_farthest_opts o;
    memset(&o, 0, sizeof o);
    if (opts) o = *opts;
    if (!c || c->failed || !eqnn__given(c, f != NULL, "farthest", "the distances are")) return NULL;
    c->op = "farthest";
    if (o.count < 0) return (eqnn_ints *)eqnn__fail(c, "farthest: .count is %d", o.count);
    if (!eqnn__no_use(c, "farthest", o.start && o.name, ".name", "beside .start",
                      "for first nodes drawn at random"))
        return NULL;
    if (nodes < 0 || (!o.count && !(fraction >= 0 && fraction <= 1))) {
        eqnn__fail(c, "farthest: %g of %d nodes makes no sense", fraction, nodes);
        return NULL;
    }
    int *first = eqnn__lie_examples(c, nodes, o.example, &o.examples, "farthest");
    size_t N = (size_t)nodes;
    double *d = (double *)eqnn__take(c, 2 * N, sizeof *d);
    int *out = (int *)eqnn__take(c, N, sizeof *out), total = 0;
    for (int e = 0; first && d && out && e < o.examples && !c->failed; e++) {
        int n = first[e + 1] - first[e], start = n > 0 ? eqnn__farthest_start(c, &o, e, n) : -1;
        int m = start < 0 ? 0 : eqnn__farthest_count(n, fraction, o.count);
        eqnn__farthest_of(f, user, first[e], n, start, m, d, d + N, out + total);
        total += m;
    }
    eqnn_ints *chosen = out ? eqnn_ints_make(c, total, out, nodes, o.keep) : NULL;
    eqnn__drop(c, out, N, sizeof *out);
    eqnn__drop(c, d, 2 * N, sizeof *d);
    if (first) eqnn__drop(c, first, (size_t)o.examples + 1, sizeof *first);
    return chosen;
}

typedef struct eqnn__lie_lifted {
    const eqnn_lie *g;
    eqnn_tensor *u, *q;
    double alpha;
} eqnn__lie_lifted;

/* From one lifted point to others; infinite after an error, so that the search ends. */
static void eqnn__lie_from(void *user, int from, int first, int n, double *out)
{
    const eqnn__lie_lifted *p = (const eqnn__lie_lifted *)user;
    eqnn_ctx *c = p->g->ctx;
    int *i = (int *)eqnn__take(c, 2 * (size_t)n, sizeof *i);
    for (int k = 0; i && k < n; k++) i[k] = from - first, i[n + k] = k;
    if (!i || !eqnn__lie_distances(p->g, p->u, p->q, p->alpha, first, n, n, i, i + n, out))
        for (int k = 0; k < n; k++) out[k] = HUGE_VAL;
    eqnn__drop(c, i, 2 * (size_t)n, sizeof *i);
}

EQNN_API eqnn_ints *eqnn_lie_farthest(const eqnn_lie *g, eqnn_tensor *u, eqnn_tensor *q,
                                      double alpha, double fraction,
                                      const eqnn_farthest_opts *opts)
{
    eqnn__lie_lifted p;
    if (eqnn__lie_bad_lift(g, u, q, "lie_farthest")) return NULL;
    p.g = g, p.u = u, p.q = q, p.alpha = alpha;
    return eqnn_farthest(g->ctx, u->rows, fraction, eqnn__lie_from, &p, opts);
}

/* ------------------------------------------------------------------------------------------------
   7 >>lieconv
   ---------------------------------------------------------------------------------------------- */

enum { EQNN__LIE_KERNEL = 16 }; /* outputs of the network k */

/* --- neighbours within a radius --- */

static int eqnn__lie_copies(const eqnn_lie_cloud *a) { return a->copies > 1 ? a->copies : 1; }

/* 0 and an error where a cloud is none, or not of x's rows (x NULL: any) */
static int eqnn__lie_cloud_good(const eqnn_lie_cloud *a, const eqnn_tensor *x, const char *op)
{
    if (!a || !a->graph || !a->pairs)
        return x ? eqnn__given(x->ctx, 0, op, "the cloud, or its graph or pairs, is") : 0;
    eqnn_ctx *c = a->pairs->ctx;
    int edges = a->graph->edges;
    if (c->failed) return 0;
    if (a->pairs->rows != edges || (a->distance && a->distance->rows != edges))
        eqnn__fail(c, "%s: %d edges, %d pairs and %d distances", op, edges, a->pairs->rows,
                   a->distance ? a->distance->rows : edges);
    else if (a->distance && a->distance->cols != 1)
        eqnn__fail(c, "%s: distances are one column, not %d", op, a->distance->cols);
    else if (x && (x->rows % eqnn__lie_copies(a) ||
                   x->rows / eqnn__lie_copies(a) != a->graph->sources))
        eqnn__fail(c, "%s: %d rows for %d nodes of %d copies", op, x->rows, a->graph->sources,
                   eqnn__lie_copies(a));
    return !c->failed;
}

/* A row for each node, with the columns of all copies side by side; and back. */
static eqnn_tensor *eqnn__lie_together(eqnn_tensor *x, int copies)
{
    return x && copies > 1 ? eqnn_reshape(x, x->rows / copies, x->cols * copies) : x;
}

static eqnn_tensor *eqnn__lie_apart(eqnn_tensor *x, int copies)
{
    return x && copies > 1 ? eqnn_reshape(x, x->rows * copies, x->cols / copies) : x;
}

/* The graph of edges list[0..n-1], source and target given for each of them, with its pairs. */
static int eqnn__lie_part(const eqnn_lie_cloud *a, int n, const int *list, const int *source,
                          const int *target, const eqnn_graph_opts *o, eqnn_lie_cloud *part)
{
    eqnn_ctx *c = a->pairs->ctx;
    eqnn_lie_cloud p;
    memset(&p, 0, sizeof p);
    p.graph = eqnn_graph_make(c, n, source, target, o);
    int *edge = (int *)eqnn__take(c, (size_t)n, sizeof *edge);
    for (int e = 0; p.graph && edge && e < n; e++) edge[e] = list[p.graph->order[e]];
    eqnn_ints *index = p.graph && edge ? eqnn_ints_make(c, n, edge, a->graph->edges, 0) : NULL;
    eqnn__drop(c, edge, (size_t)n, sizeof *edge);
    if (!index) return 0;
    p.pairs = eqnn_take(a->pairs, index);
    if (a->distance) p.distance = eqnn_take(a->distance, index);
    p.copies = a->copies;
    *part = p;
    return !c->failed;
}

/* Leaves at most `most` of the edges list[0..n-1], sorted by target, of each target: the first of
   them in a random order (R. Durstenfeld 1964, doi:10.1145/364520.364540). */
static int eqnn__lie_draw(const eqnn_graph *graph, int most, int *list, int n)
{
    eqnn_ctx *c = graph->ctx;
    int kept = 0;
    double *chance = (double *)eqnn__take(c, (size_t)n, sizeof *chance);
    if (chance) eqnn_random(c, "neighbours", 0, (size_t)n, chance);
    for (int at = 0, end; chance && at < n; at = end) {
        int target = graph->target[list[at]];
        for (end = at; end < n && graph->target[list[end]] == target; end++) {}
        for (int k = at; k < end && k < at + most; k++) {
            int other = end - at > most ? k + (int)(chance[k] * (end - k)) : k, edge = list[other];
            list[other] = list[k];
            list[kept++] = edge;
        }
    }
    eqnn__drop(c, chance, (size_t)n, sizeof *chance);
    return kept;
}

/* Files r + gain (fill - taken): taken is the mean number of neighbours over the mean number of
   points of an example, the empty examples counted too. */
static void eqnn__lie_radius_update(eqnn_tensor *r, const eqnn_graph *graph, int within,
                                    const eqnn_lie_conv_opts *o)
{
    if (graph->targets == 0 || graph->sources == 0) return;
    double points = (double)graph->sources / (graph->examples > 0 ? graph->examples : 1);
    double taken = (double)within / graph->targets / points;
    int recording = eqnn__pause(r->ctx);
    eqnn_file_update(r, eqnn_shift(r, o->gain * (o->fill - taken)), 1);
    eqnn__resume(r->ctx, recording);
}

/* The edges that are neighbours. Without distances these are all, and there is no radius. */
static int eqnn__lie_ball(const eqnn_lie_cloud *a, const eqnn_lie_conv_opts *o,
                          eqnn_lie_cloud *ball)
{
    eqnn_ctx *c = a->pairs->ctx;
    const eqnn_graph *graph = a->graph;
    eqnn_graph_opts graph_opts;
    eqnn_init init;
    int n = 0, E = graph->edges;
    memset(&graph_opts, 0, sizeof graph_opts);
    memset(&init, 0, sizeof init);
    init.kind = EQNN_INIT_ONES, init.scale = o->radius;
    *ball = *a;
    eqnn_tensor *r = a->distance ? eqnn_buffer(c, "r", 1, 1, &init) : NULL;
    if (c->failed || (!r && o->most <= 0)) return !c->failed;
    int *list = (int *)eqnn__take(c, 3 * (size_t)E, sizeof *list);
    const eqnn_real *d = r ? eqnn_data(a->distance) : NULL;
    const eqnn_real *limit = r ? eqnn__buffer_here(r) : NULL;
    for (int e = 0; list && (limit || !r) && e < E; e++)
        if (!d || d[e] < *limit) list[n++] = e;
    if (list && r && c->training && o->gain > 0) eqnn__lie_radius_update(r, graph, n, o);
    if (list && o->most > 0) n = eqnn__lie_draw(graph, o->most, list, n);
    for (int i = 0; list && i < n; i++) {
        list[E + i] = graph->source[list[i]];
        list[2 * E + i] = graph->target[list[i]];
    }
    graph_opts.sources = graph->sources, graph_opts.targets = graph->targets;
    graph_opts.example = graph->example, graph_opts.examples = graph->examples;
    int good = list && !c->failed;
    if (good && n < E)
        good = eqnn__lie_part(a, n, list, list + E, list + 2 * E, &graph_opts, ball);
    eqnn__drop(c, list, 3 * (size_t)E, sizeof *list);
    return good;
}

/* The graph between the lifts of its nodes: every node `samples` times, as eqnn_lie_lift has them,
   and every edge for each pair of samples. */
static const eqnn_graph *eqnn__lifted_graph(const eqnn_graph *graph, int samples, const char *op)
{
    double edges = (double)graph->edges * samples * samples;
    double nodes = (double)graph->targets * samples;
    eqnn_graph_opts o;
    memset(&o, 0, sizeof o);
    if (samples == 1) return graph;
    if (edges > INT_MAX || nodes > INT_MAX)
        return (const eqnn_graph *)eqnn__fail(
            graph->ctx, "%s: %d edges of %d samples are too many", op, graph->edges, samples);
    size_t E = (size_t)edges, n = 0;
    int *edge = (int *)eqnn__temp(graph->ctx, 2 * E, sizeof *edge);
    int *example = (int *)eqnn__temp(graph->ctx, (size_t)nodes, sizeof *example);
    if (!edge || !example) return NULL;
    for (int e = 0; e < graph->edges; e++)
        for (int k = 0; k < samples * samples; k++, n++) {
            edge[n] = graph->source[e] * samples + k % samples;
            edge[E + n] = graph->target[e] * samples + k / samples;
        }
    for (int i = 0; i < (int)nodes; i++)
        example[i] = graph->example ? graph->example[i / samples] : 0;
    o.sources = o.targets = (int)nodes, o.example = example, o.examples = graph->examples;
    return eqnn_graph_make(graph->ctx, (int)E, edge, edge + E, &o);
}

/* A constant; what it is made of is forgotten. */
static eqnn_tensor *eqnn__lie_distance_alone(const eqnn_lie *g, eqnn_tensor *pairs, double alpha)
{
    if (!pairs) return NULL;
    eqnn_mark mark = eqnn_mark_make(g->ctx);
    int recording = eqnn__pause(g->ctx);
    eqnn_tensor *d = eqnn_lie_distance(g, pairs, alpha);
    eqnn__resume(g->ctx, recording);
    return eqnn_rewind(mark, d);
}

EQNN_API int eqnn_lie_cloud_make(const eqnn_lie *g, eqnn_tensor *points, const eqnn_graph *graph,
                                 const char *name, int samples, double alpha,
                                 eqnn_lie_cloud *cloud)
{
    const char *op = "lie_cloud_make";
    eqnn_tensor *u = NULL, *q = NULL;
    if (cloud) memset(cloud, 0, sizeof *cloud);
    if (eqnn__bad(points, op) || !eqnn__given(points->ctx, g != NULL, op, "the group is") ||
        !eqnn__given(points->ctx, graph != NULL, op, "the graph is") ||
        !eqnn__given(points->ctx, cloud != NULL, op, "the place for the cloud is"))
        return 0;
    if (graph->sources != points->rows || graph->targets != points->rows)
        eqnn__fail(g->ctx, "lie_cloud_make: a graph from %d to %d nodes and %d points",
                   graph->sources, graph->targets, points->rows);
    if (!eqnn_lie_lift(g, points, name, samples, &u, &q)) return 0;
    cloud->graph = eqnn__lifted_graph(graph, samples, "lie_cloud_make");
    cloud->pairs = cloud->graph ? eqnn_lie_pairs(g, u, q, cloud->graph) : NULL;
    if (!g->turns) cloud->distance = eqnn__lie_distance_alone(g, cloud->pairs, alpha);
    return !g->ctx->failed;
}

/* Edges are sorted already, so that those of the new graph stand in the same order. */
EQNN_API int eqnn_lie_cloud_keep(eqnn_lie_cloud *cloud)
{
    eqnn_graph_opts o;
    memset(&o, 0, sizeof o);
    if (!eqnn__lie_cloud_good(cloud, NULL, "lie_cloud_keep")) return 0;
    const eqnn_graph *g = cloud->graph;
    o.sources = g->sources, o.targets = g->targets, o.keep = 1;
    o.example = g->example, o.examples = g->examples;
    cloud->graph = eqnn_graph_make(g->ctx, g->edges, g->source, g->target, &o);
    cloud->pairs = eqnn_keep(cloud->pairs);
    if (cloud->distance) cloud->distance = eqnn_keep(cloud->distance);
    return !g->ctx->failed;
}

/* --- the layer --- */

static eqnn_lie_conv_opts eqnn__lie_conv_defaults(const eqnn_lie_conv_opts *opts)
{
    eqnn_lie_conv_opts o;
    memset(&o, 0, sizeof o);
    if (opts) o = *opts;
    if (o.act == EQNN_IDENTITY) o.act = EQNN_SILU;
    if (o.fill == 0) o.fill = 1;
    if (o.radius == 0) o.radius = 2;
    if (o.gain == 0) o.gain = 0.5;
    return o;
}

/* published: the variance is limited from below by 1e-5, which is not added to it */
static eqnn_tensor *eqnn__lie_norm(eqnn_tensor *x, const char *name, int published)
{
    eqnn_norm_opts o;
    memset(&o, 0, sizeof o);
    o.clamp = published;
    return eqnn_batch_norm(x, name, &o);
}

/* The activation, behind a batch norm when there are norms. */
static eqnn_tensor *eqnn__conv_act(eqnn_tensor *x, const char *norm, const eqnn_lie_conv_opts *o)
{
    if (o->norm) x = eqnn__lie_norm(x, norm, o->published);
    return eqnn_map(x, o->act, 0, 0);
}

/* Where torch.nn.Linear of so many inputs starts; 0: as many as the weight has columns. */
static eqnn_init eqnn__torch_init(int fan_in)
{
    eqnn_init init;
    memset(&init, 0, sizeof init);
    init.kind = EQNN_INIT_TORCH;
    init.fan_in = fan_in;
    return init;
}

static const void *eqnn__lie_outer_plan(eqnn_ctx *c, int channels)
{
    static const int cut[5] = { 0, 7, 14, 15, 16 }; /* 7 and 1 columns have loops of their own */
    double C[4][49];
    eqnn__couple_path path[4];
    const void **plan = eqnn__plan_find(c, EQNN__LIE_OUTER, channels, 0, 0);
    if (!plan || *plan) return plan ? *plan : NULL;
    memset(path, 0, sizeof path);
    memset(C, 0, sizeof C);
    for (int i = 0; i < 4; i++) {
        eqnn__couple_path *p = path + i;
        int d = cut[i + 1] - cut[i];
        for (int k = 0; k < d; k++) C[i][k * d + k] = 1;
        p->d1 = 1, p->d2 = p->d3 = d;
        p->y = cut[i], p->g = cut[i] * channels;
        p->xs = channels, p->ys = 1, p->gs = channels;
        p->w = -1, p->channels = channels;
        p->C = C[i], p->scale = 1;
    }
    return *plan = eqnn__couple_plan(c, path, 4);
}

/* P_i [k][channel] = sum over edges j -> i of x_j[channel] w_ij[k]. Nothing of the size edges times
   channels is stored; the sum over j comes before the matrix product, which is one a node. */
static eqnn_tensor *eqnn__lie_outer_sum(eqnn_tensor *x, eqnn_tensor *w, const eqnn_graph *graph)
{
    if (!x || !w) return NULL;
    eqnn__form f;
    eqnn_tensor *v[EQNN__SLOTS] = { x, w };
    const void *plan = eqnn__lie_outer_plan(x->ctx, x->cols);
    if (!plan) return NULL;
    eqnn__form_start(&f, EQNN__COUPLE, 5, graph->edges, plan);
    f.graph = graph;
    eqnn__slot(&f, 0, EQNN__SOURCE, x->rows, x->cols);
    eqnn__slot(&f, 1, EQNN__EACH, w->rows, w->cols);
    eqnn__slot(&f, 4, EQNN__TARGET, graph->targets, EQNN__LIE_KERNEL * x->cols);
    return eqnn__form_value(x->ctx, &f, v, 4);
}

/* y [copy][out] = sum over k of P [k][copy][channel] W [k][channel][out] */
static const void *eqnn__lie_mix_plan(eqnn_ctx *c, int channels, int out, int copies)
{
    eqnn__mix_block block[EQNN__LIE_KERNEL];
    const void **plan = eqnn__plan_find(c, EQNN__LIE_MIX, channels, out, copies);
    if (!plan || *plan) return plan ? *plan : NULL;
    memset(block, 0, sizeof block);
    for (int k = 0; k < EQNN__LIE_KERNEL; k++) {
        eqnn__mix_block *b = block + k;
        b->d = copies, b->U = channels, b->V = out;
        b->x = k * copies * channels, b->xs = channels;
        b->w = k * channels * out, b->gs = out;
        b->scale = 1;
    }
    return *plan = eqnn__mix_plan(c, block, EQNN__LIE_KERNEL);
}

/* P [targets, (k, copy, channel)] by the weight [out, (k, channel)] -> [targets, (copy, out)] */
static eqnn_tensor *eqnn__lie_mix(eqnn_tensor *P, eqnn_tensor *weight, int channels, int copies)
{
    if (!P || !weight) return NULL;
    eqnn__form f;
    eqnn_tensor *v[EQNN__SLOTS] = { P, NULL };
    int out = weight->rows;
    const void *plan = eqnn__lie_mix_plan(P->ctx, channels, out, copies);
    v[1] = eqnn_reshape(eqnn_transpose(weight), 1, EQNN__LIE_KERNEL * channels * out);
    if (!plan || !v[1]) return NULL;
    eqnn__form_start(&f, EQNN__MIX, 3, P->rows, plan);
    eqnn__slot(&f, 0, EQNN__EACH, P->rows, P->cols);
    eqnn__slot(&f, 1, EQNN__ONE, 1, v[1]->cols);
    eqnn__slot(&f, 2, EQNN__EACH, P->rows, copies * out);
    return eqnn__form_value(P->ctx, &f, v, 2);
}

/* "weight" [out, (channel, k)] in the order (k, channel) */
static eqnn_tensor *eqnn__lie_conv_weight(eqnn_ctx *c, const void *user)
{
    const int *sizes = (const int *)user; /* out, channels */
    int n = EQNN__LIE_KERNEL * sizes[1];
    eqnn_init torch = eqnn__torch_init(0);
    eqnn_tensor *weight = eqnn_param(c, "weight", sizes[0], n, &torch);
    int *column = (int *)eqnn__take(c, (size_t)n, sizeof *column);
    for (int i = 0; column && i < n; i++)
        column[i] = i % sizes[1] * EQNN__LIE_KERNEL + i / sizes[1];
    eqnn_ints *index = column ? eqnn_ints_make(c, n, column, n, 0) : NULL;
    eqnn__drop(c, column, (size_t)n, sizeof *column);
    return index ? eqnn_columns(weight, index) : NULL;
}

/* W P + b with P [targets, (k, copy, channel)]; the mean divides W P, as published W P + b */
static eqnn_tensor *eqnn__lie_conv_linear(eqnn_tensor *P, const eqnn_lie_cloud *ball, int channels,
                                          int out, const eqnn_lie_conv_opts *o)
{
    const int sizes[2] = { out, channels }, copies = eqnn__lie_copies(ball);
    eqnn_init torch = eqnn__torch_init(EQNN__LIE_KERNEL * channels);
    P = eqnn_enter(P, "linear");
    if (!P) return NULL;
    eqnn_tensor *share = o->sum ? NULL : eqnn_inverse_degree(ball->graph);
    eqnn_tensor *weight = eqnn_once(P->ctx, "weight.turned", eqnn__lie_conv_weight, sizes);
    eqnn_tensor *y = copies > 1 ? eqnn__lie_mix(P, weight, channels, copies)
                                : eqnn_matmul_t(P, weight, 0, 1);
    eqnn_tensor *bias = eqnn_param(P->ctx, "bias", 1, out, &torch);
    if (share && copies > 1 && o->published) share = eqnn_repeat(share, copies);
    if (share && !o->published) y = eqnn_mul(y, share);
    y = eqnn__add_here(eqnn__lie_apart(y, copies), bias);
    if (share && o->published) y = eqnn_mul(y, share);
    return eqnn_leave(y);
}

/* --- runs of edges ---

   A network that sees one edge at a time makes several hundred numbers of each on its way to a few.
   Of many edges a run at a time goes through, is forgotten, and goes through again in the backward
   pass. */

/* How many edges a run has, or 0: all go at once. */
static int eqnn__lie_run(const eqnn_tensor *pairs, int wanted)
{
    int run = wanted ? wanted : pairs->rows > EQNN__LIE_MANY ? 1 << 13 : 0;
    return run > 0 && run < pairs->rows ? (run - 1) / 16 * 16 + 16 : 0;
}

/* f of pairs, row by row */
static eqnn_tensor *eqnn__lie_in_runs(eqnn_tensor *pairs, int wanted, eqnn_function f, void *user,
                                      size_t user_size)
{
    int runs, run = pairs ? eqnn__lie_run(pairs, wanted) : 0;
    if (!pairs) return NULL;
    if (!run) return f(&pairs, 1, user);
    eqnn_tensor **in = eqnn__split_rows(pairs, run, &runs);
    eqnn_tensor **out = in ? (eqnn_tensor **)eqnn__temp(pairs->ctx, (size_t)runs, sizeof *out)
                           : NULL;
    for (int i = 0; out && i < runs; i++)
        out[i] = eqnn_checkpoint(f, &in[i], 1, user, user_size);
    return out ? eqnn_stack(out, runs) : NULL;
}

/* --- the network k ---

   Five places along it: 0 the pairs, 1 to 3 behind a linear layer, 4 the result. Norms need the
   statistics of all edges first: then a run goes from place to place and waits for the others. */

typedef struct eqnn__lie_kernel {
    eqnn_lie_conv_opts o;
    int from, to; /* places                                                             */
    int moments;  /* the result is mean and variance of what is there, side by side */
} eqnn__lie_kernel;

static const char *const eqnn__lie_kernel_names[3][2] = {
    { "weightnet.0.module", "weightnet.1" },
    { "weightnet.3.module", "weightnet.4" },
    { "weightnet.6.module", "weightnet.7" }
};

static eqnn_tensor *eqnn__mean_and_variance(eqnn_tensor *x)
{
    eqnn_tensor *mean = eqnn_mean_rows(x);
    return eqnn_concat(mean, eqnn_mean_rows(eqnn_square(eqnn_sub(x, mean))));
}

/* The norm, by a mean and variance that are given: not those of these rows alone. */
static eqnn_tensor *eqnn__lie_norm_by(eqnn_tensor *x, eqnn_tensor *moments, const char *name,
                                      int published)
{
    eqnn_norm_opts o = eqnn__norm_defaults(NULL);
    o.clamp = published;
    if (!moments || !(x = eqnn_enter(x, name))) return NULL;
    eqnn_tensor *centred = eqnn_sub(x, eqnn_slice(moments, 0, x->cols));
    return eqnn_leave(eqnn__batch_affine(centred, eqnn_slice(moments, x->cols, x->cols), &o));
}

/* From place to place: x[0] is what is at the first; x[1], .. the moments at the places on the way;
   n = 1: norms take those of x[0] itself, or the running ones. */
static eqnn_tensor *eqnn__lie_kernel_go(eqnn_tensor *const *x, int n, void *user)
{
    const eqnn__lie_kernel *u = (const eqnn__lie_kernel *)user;
    eqnn_tensor *h = x[0];
    for (int k = u->from + 1, at = 1; k <= u->to; k++) {
        const char *norm = k > 1 ? eqnn__lie_kernel_names[k - 2][1] : NULL;
        if (norm && at < n)
            h = eqnn_map(eqnn__lie_norm_by(h, x[at++], norm, u->o.published), u->o.act, 0, 0);
        else if (norm) h = eqnn__conv_act(h, norm, &u->o);
        if (k <= 3)
            h = eqnn_linear(h, eqnn__lie_kernel_names[k - 1][0], k < 3 ? 32 : EQNN__LIE_KERNEL,
                            NULL);
    }
    return h && u->moments ? eqnn__mean_and_variance(h) : h;
}

/* out[i] = the same of in[i], each a checkpoint */
static void eqnn__lie_kernel_runs(const eqnn__lie_kernel *u, eqnn_tensor *const *in, int runs,
                                  eqnn_tensor *const *moments, eqnn_tensor **out)
{
    for (int i = 0; i < runs; i++) {
        eqnn_tensor *x[4] = { in[i], NULL, NULL, NULL };
        int n = 1;
        for (int k = u->from ? u->from : 1; k < u->to && moments[k]; k++) x[n++] = moments[k];
        out[i] = eqnn_checkpoint(eqnn__lie_kernel_go, x, n, u, sizeof *u);
    }
}

/* The moments of all rows from those of runs with these shares [runs,1] of them: the mean of means,
   and the mean of variances plus the variance of means (T. F. Chan, G. H. Golub, R. J. LeVeque,
   American Statistician 37, 1983). */
static eqnn_tensor *eqnn__lie_moments(eqnn_tensor *const *of, int runs, eqnn_tensor *share)
{
    eqnn_tensor *all = eqnn_stack(of, runs);
    if (!all) return NULL;
    int cols = all->cols / 2;
    eqnn_tensor *means = eqnn_slice(all, 0, cols), *vars = eqnn_slice(all, cols, cols);
    eqnn_tensor *mean = eqnn_sum_rows(eqnn_mul(means, share));
    vars = eqnn_add(vars, eqnn_square(eqnn_sub(means, mean)));
    return eqnn_concat(mean, eqnn_sum_rows(eqnn_mul(vars, share)));
}

/* Files moments of n rows for the running ones of the norm. */
static void eqnn__lie_moments_file(eqnn_tensor *moments, const char *norm, int n)
{
    eqnn_norm_opts o = eqnn__norm_defaults(NULL);
    eqnn_init ones = eqnn__init_of(EQNN_INIT_ONES, 1);
    if (!moments || !eqnn__scope_push(moments->ctx, norm)) return;
    eqnn_ctx *c = moments->ctx;
    int cols = moments->cols / 2;
    eqnn_tensor *mean = eqnn_buffer(c, "running_mean", 1, cols, NULL);
    eqnn_tensor *var = eqnn_buffer(c, "running_var", 1, cols, &ones);
    eqnn__batch_file(mean, var, eqnn_slice(moments, 0, cols), eqnn_slice(moments, cols, cols), n,
                     o.momentum);
    eqnn__scope_pop(c);
}

/* Each run's share of all rows */
static eqnn_tensor *eqnn__lie_shares(eqnn_tensor *const *run, int runs, int rows)
{
    eqnn_ctx *c = run[0]->ctx;
    double *share = (double *)eqnn__temp(c, (size_t)runs, sizeof *share);
    for (int i = 0; share && i < runs; i++) share[i] = (double)run[i]->rows / rows;
    return share ? eqnn_from_double(c, runs, 1, share) : NULL;
}

/* The network with norms that ask for statistics, `run` edges at a time. Places 2 and 3 are
   remembered, for without them each norm would send all edges through all layers in front of it
   again. Place 1 is not, it is the product with a matrix of few columns. */
static eqnn_tensor *eqnn__lie_kernel_in_runs(eqnn_tensor *pairs, eqnn__lie_kernel *u, int run)
{
    eqnn_tensor *moments[4] = { NULL, NULL, NULL, NULL };
    int runs;
    eqnn_tensor **in = eqnn__split_rows(pairs, run, &runs);
    eqnn_tensor **out = in ? (eqnn_tensor **)eqnn__temp(pairs->ctx, 3 * (size_t)runs, sizeof *out)
                           : NULL;
    eqnn_tensor *share = out ? eqnn__lie_shares(in, runs, pairs->rows) : NULL;
    if (!share) return NULL;
    for (int k = 1; k <= 3; k++) {
        u->to = k;
        if (k > 1) {
            eqnn_tensor **there = out + (k - 1) * runs;
            eqnn__lie_kernel_runs(u, in, runs, moments, there);
            in = there;
            u->from = k;
        }
        u->moments = 1;
        eqnn__lie_kernel_runs(u, in, runs, moments, out);
        u->moments = 0;
        moments[k] = eqnn__lie_moments(out, runs, share);
        eqnn__lie_moments_file(moments[k], eqnn__lie_kernel_names[k - 1][1], pairs->rows);
    }
    u->to = 4;
    eqnn__lie_kernel_runs(u, in, runs, moments, out);
    return eqnn_stack(out, runs);
}

static eqnn_tensor *eqnn__lie_kernel_of(eqnn_tensor *pairs, const eqnn_lie_conv_opts *o)
{
    eqnn__lie_kernel u;
    memset(&u, 0, sizeof u);
    u.o = *o, u.to = 4;
    if (pairs && o->norm && pairs->ctx->training && eqnn__lie_run(pairs, o->run))
        return eqnn__lie_kernel_in_runs(pairs, &u, eqnn__lie_run(pairs, o->run));
    return eqnn__lie_in_runs(pairs, o->run, eqnn__lie_kernel_go, &u, sizeof u);
}

/* Where all are neighbours there is no radius; one that stays wants no share. A share of 1 is what
   is anyway. */
static int eqnn__lie_conv_uses(eqnn_ctx *c, const eqnn_lie_cloud *cloud,
                               const eqnn_lie_conv_opts *o)
{
    static const char op[] = "lie_conv", all[] = "where pairs have no distance";
    int some = o && (o->fill < 0 || o->fill > 0) && !(o->fill == 1);
    if (!o) return 1;
    if (!cloud->distance)
        return eqnn__no_use(c, op, some, ".fill", all, "the share that is within a radius") &&
               eqnn__no_use(c, op, o->radius < 0 || o->radius > 0, ".radius", all,
                            "the distance of neighbours") &&
               eqnn__no_use(c, op, o->gain < 0 || o->gain > 0, ".gain", all,
                            "how the distance of neighbours learns");
    return eqnn__no_use(c, op, some && o->gain < 0, ".fill", "with .gain below 0",
                        "what the radius moves to, which stays then");
}

EQNN_API eqnn_tensor *eqnn_lie_conv(eqnn_tensor *x, const eqnn_lie_cloud *cloud, const char *name,
                                    int out, const eqnn_lie_conv_opts *opts)
{
    eqnn_lie_conv_opts o = eqnn__lie_conv_defaults(opts);
    eqnn_lie_cloud ball;
    if (eqnn__bad(x, "lie_conv")) return NULL;
    if (!eqnn__lie_cloud_good(cloud, x, "lie_conv")) return NULL;
    if (out <= 0) return eqnn__fail(x->ctx, "lie_conv in %s: %d channels out", name, out);
    if (!(fabs(o.gain) < INFINITY))
        return eqnn__fail(x->ctx, "lie_conv in %s: the gain is %g", name, o.gain);
    if (!(o.fill > 0 && o.fill <= 1) || !(o.radius > 0) || o.most < 0)
        return eqnn__fail(x->ctx,
                          "lie_conv in %s: fill %g, radius %g, most %d: nothing may be negative, "
                          "and fill is at most 1", name, o.fill, o.radius, o.most);
    if (!eqnn__lie_conv_uses(x->ctx, cloud, opts)) return NULL;
    x = eqnn_enter(eqnn__plain(x, "lie_conv", name, "invariant channels"), name);
    if (!x || !eqnn__lie_ball(cloud, &o, &ball)) return NULL;
    eqnn_tensor *w = eqnn__lie_kernel_of(ball.pairs, &o);
    int channels = x->cols;
    eqnn_tensor *together = eqnn__lie_together(x, eqnn__lie_copies(cloud));
    eqnn_tensor *P = eqnn__lie_outer_sum(together, w, ball.graph);
    return eqnn_leave(eqnn__lie_conv_linear(P, &ball, channels, out, &o));
}

/* --- some of the nodes --- */

/* One of the two clouds of eqnn_lie_sample. place [nodes]: a node's place among the chosen, or
   -1. */
static int eqnn__lie_sample_part(const eqnn_lie_cloud *all, const int *place, int between,
                                 int turned, const eqnn_graph_opts *o, eqnn_lie_cloud *part)
{
    const eqnn_graph *graph = all->graph;
    int n = 0, E = graph->edges;
    int *list = (int *)eqnn__take(graph->ctx, 3 * (size_t)E, sizeof *list);
    for (int e = 0; list && e < E; e++) {
        int j = graph->source[e], i = place[graph->target[e]];
        if (i < 0 || (between && place[j] < 0)) continue;
        list[n] = e;
        list[E + n] = between ? place[j] : j;
        list[2 * E + n++] = i;
    }
    int *source = list + E, *target = list + 2 * E;
    int good = list && eqnn__lie_part(all, n, list, turned ? target : source,
                                      turned ? source : target, o, part);
    eqnn__drop(graph->ctx, list, 3 * (size_t)E, sizeof *list);
    return good;
}

EQNN_API int eqnn_lie_sample(const eqnn_lie_cloud *all, eqnn_ints *chosen, int turned,
                             eqnn_lie_cloud *queries, eqnn_lie_cloud *left)
{
    eqnn_graph_opts o;
    eqnn_lie_cloud q, l;
    memset(&o, 0, sizeof o);
    if (!chosen || !eqnn__lie_cloud_good(all, NULL, "lie_sample")) return 0;
    const eqnn_graph *graph = all->graph;
    eqnn_ctx *c = all->pairs->ctx;
    int N = graph->sources, m = eqnn_ints_count(chosen);
    int *place = (int *)eqnn__take(c, (size_t)N, sizeof *place);
    int *example = (int *)eqnn__take(c, (size_t)m, sizeof *example);
    const int *node = eqnn_ints_data(chosen);
    int good = place && example;
    if (good && m == 0 && N > 0) good = 0, eqnn__fail(c, "lie_sample: no node is chosen");
    if (good && graph->targets != N)
        good = 0, eqnn__fail(c, "lie_sample: the graph leads to %d of %d nodes", graph->targets, N);
    for (int i = 0; good && i < N; i++) place[i] = -1;
    for (int i = 0; good && i < m; i++) {
        good = node[i] >= 0 && node[i] < N && place[node[i]] < 0;
        if (!good) {
            eqnn__fail(c, "lie_sample: node %d of %d is chosen twice or is none", node[i], N);
            break;
        }
        place[node[i]] = i;
        example[i] = graph->example ? graph->example[node[i]] : 0;
    }
    o.sources = N, o.targets = m, o.example = example, o.examples = graph->examples;
    if (good && queries) good = eqnn__lie_sample_part(all, place, 0, 0, &o, &q);
    o.sources = m;
    if (good && left) good = eqnn__lie_sample_part(all, place, 1, turned, &o, &l);
    eqnn__drop(c, example, (size_t)m, sizeof *example);
    eqnn__drop(c, place, (size_t)N, sizeof *place);
    if (good && queries) *queries = q;
    if (good && left) *left = l;
    return good;
}

/* --- networks --- */

EQNN_API eqnn_tensor *eqnn_lie_block(eqnn_tensor *x, const eqnn_lie_cloud *cloud,
                                     eqnn_ints *chosen, const char *name, int out,
                                     const eqnn_lie_conv_opts *opts)
{
    eqnn_lie_conv_opts o = eqnn__lie_conv_defaults(opts);
    if (eqnn__bad(x, "lie_block")) return NULL;
    int in = x->cols;
    if (out < in || in < 4)
        return eqnn__fail(x->ctx, "lie_block in %s: from %d to %d channels; at least 4 come in and "
                                  "as many go out", name, in, out);
    x = eqnn_enter(x, name);
    eqnn_tensor *h = eqnn__conv_act(x, "net.0", &o);
    h = eqnn_linear(h, "net.2.module", in / 4, NULL);
    h = eqnn_lie_conv(eqnn__conv_act(h, "net.3", &o), cloud, "net.5", out / 4, opts);
    h = eqnn_linear(eqnn__conv_act(h, "net.6", &o), "net.8.module", out, NULL);
    int copies = cloud ? eqnn__lie_copies(cloud) : 1;
    eqnn_tensor *skip = x;
    if (chosen) skip = eqnn__lie_apart(eqnn_take(eqnn__lie_together(x, copies), chosen), copies);
    if (h && skip && skip->rows != h->rows)
        return eqnn__fail(x->ctx, "lie_block: the cloud leads to %d nodes, %d are chosen", h->rows,
                          skip->rows);
    if (skip && out > in) skip = eqnn_concat(skip, eqnn_zeros(x->ctx, skip->rows, out - in));
    return eqnn_leave(eqnn__add_here(h, skip));
}

/* Block number b, counted from 0; *cloud becomes that of the nodes left. */
static eqnn_tensor *eqnn__lie_resnet_block(eqnn_tensor *x, eqnn_lie_cloud *cloud, int b,
                                           const eqnn_lie_resnet_opts *o)
{
    eqnn_lie_conv_opts conv = o->conv;
    eqnn_lie_cloud queries = *cloud;
    eqnn_ints *chosen = o->chosen ? o->chosen[b] : NULL;
    int copies = cloud->copies;
    char name[32];
    if (!x) return NULL;
    snprintf(name, sizeof name, "net.%d", b + 1);
    if (o->fills) conv.fill = o->fills[b];
    if (chosen && o->queries) *cloud = queries = o->queries[b]; /* the nodes left are its targets */
    else if (chosen && !eqnn_lie_sample(cloud, chosen, conv.published, &queries, cloud))
        return NULL;
    queries.copies = cloud->copies = copies;
    return eqnn_lie_block(x, &queries, chosen, name, o->widths ? o->widths[b + 1] : o->width,
                          &conv);
}

static eqnn_lie_resnet_opts eqnn__lie_resnet_defaults(const eqnn_lie_resnet_opts *opts)
{
    eqnn_lie_resnet_opts o;
    memset(&o, 0, sizeof o);
    if (opts) o = *opts;
    if (!o.layers) o.layers = 6;
    if (!o.width) o.width = 384;
    return o;
}

static int eqnn__lie_resnet_uses(eqnn_ctx *c, const eqnn_lie_resnet_opts *o)
{
    static const char op[] = "lie_resnet";
    return eqnn__no_use(c, op, o && o->widths && o->width, ".width", "beside .widths",
                        "of all layers, and .widths of each") &&
           eqnn__no_use(c, op, o && o->fills && (o->conv.fill < 0 || o->conv.fill > 0),
                        ".conv.fill", "beside .fills", "of all blocks, and .fills of each") &&
           eqnn__no_use(c, op, o && o->queries && !o->chosen, ".queries", "without .chosen",
                        "for the nodes that are chosen");
}

EQNN_API eqnn_tensor *eqnn_lie_resnet(eqnn_tensor *x, const eqnn_lie_cloud *cloud, const char *name,
                                      int out, const eqnn_lie_resnet_opts *opts)
{
    eqnn_lie_resnet_opts o = eqnn__lie_resnet_defaults(opts);
    char norm[32], head[32];
    if (eqnn__bad(x, "lie_resnet") || !eqnn__lie_cloud_good(cloud, x, "lie_resnet")) return NULL;
    if (o.layers < 0 || o.width < 0)
        return eqnn__fail(x->ctx, "lie_resnet in %s: %d layers of width %d", name, o.layers,
                          o.width);
    if (!eqnn__lie_resnet_uses(x->ctx, opts)) return NULL;
    eqnn_lie_conv_opts conv = eqnn__lie_conv_defaults(&o.conv);
    eqnn_lie_cloud at = *cloud;
    x = eqnn_enter(x, name);
    x = eqnn_linear(x, "net.0.module", o.widths ? o.widths[0] : o.width, NULL);
    for (int b = 0; b < o.layers; b++) x = eqnn__lie_resnet_block(x, &at, b, &o);
    snprintf(norm, sizeof norm, "net.%d", o.layers + 1);
    snprintf(head, sizeof head, "net.%d.module", o.layers + 3);
    x = eqnn_linear(eqnn__conv_act(x, norm, &conv), head, out, NULL);
    if (o.no_pool) return eqnn_leave(x);
    x = eqnn__lie_together(x, eqnn__lie_copies(&at));
    x = o.conv.sum ? eqnn_pool_sum(x, at.graph) : eqnn_pool_mean(x, at.graph);
    return eqnn_leave(eqnn__lie_apart(x, eqnn__lie_copies(&at)));
}

EQNN_API void eqnn_lie_image_sizes(int layers, int width, double fill, double total, int *widths,
                                   double *fills, double *share)
{
    double each = pow(total, 1. / (layers > 0 ? layers : 1));
    if (share) *share = each;
    for (int i = 0; i <= layers; i++) {
        if (widths) widths[i] = (int)(width / pow(each, i / 2.));
        if (fills && i < layers) fills[i] = fmin(1, fill / pow(each, i));
    }
}

/* --- particles in motion --- */

/* Do z, graph and constants fit? d gets the number of axes. */
static int eqnn__particles_good(eqnn_tensor *z, const eqnn_particles *a, const char *op)
{
    if (eqnn__bad(z, op)) return 0;
    if (!a || !a->graph || !a->constants)
        return eqnn__given(z->ctx, 0, op, "the particles, or their graph or constants, are");
    if (z->cols < 2 || z->cols % 2 || a->constants->cols < 1)
        eqnn__fail(z->ctx, "%s: positions and momenta of %d columns, constants of %d", op, z->cols,
                   a->constants->cols);
    else if (z->rows != a->graph->targets || a->constants->rows != z->rows)
        eqnn__fail(z->ctx, "%s: %d particles in the graph, %d states, %d rows of constants", op,
                   a->graph->targets, z->rows, a->constants->rows);
    return !z->ctx->failed;
}

EQNN_API eqnn_tensor *eqnn_centred(eqnn_tensor *x, const eqnn_graph *graph)
{
    if (eqnn__bad(x, "centred") ||
        !eqnn__given(x->ctx, graph != NULL, "centred", "the graph is"))
        return NULL;
    if (x->rows == 0) return x;
    eqnn_tensor *mean = eqnn_pool_mean(x, graph);
    return eqnn_sub(x, graph->example ? eqnn_take(mean, graph->example_index) : mean);
}

EQNN_API eqnn_tensor *eqnn_kinetic(eqnn_tensor *z, const eqnn_particles *particles)
{
    if (!eqnn__particles_good(z, particles, "kinetic")) return NULL;
    int d = z->cols / 2;
    eqnn_tensor *square = eqnn_sum_cols(eqnn_square(eqnn_slice(z, d, d)));
    eqnn_tensor *mass = eqnn_slice(particles->constants, 0, 1);
    return eqnn_pool_sum(eqnn_div(eqnn_scale(square, 0.5), mass), particles->graph);
}

EQNN_API eqnn_tensor *eqnn_hamiltonian_field(eqnn_tensor *H, eqnn_tensor *z)
{
    if (!H || eqnn__bad(z, "hamiltonian_field")) return NULL;
    int d = z->cols / 2;
    if (z->cols % 2)
        return eqnn__fail(z->ctx, "hamiltonian_field: positions and momenta of %d columns",
                          z->cols);
    eqnn_tensor *dH = eqnn_grad(eqnn_sum(H), z);
    eqnn_tensor *dq = eqnn_slice(dH, 0, d), *dp = eqnn_slice(dH, d, d);
    return eqnn_concat(dp, eqnn_neg(dq));
}

EQNN_API eqnn_tensor *eqnn_lie_energy(eqnn_tensor *z, const eqnn_particles *particles,
                                      const eqnn_lie *g, int samples, double alpha,
                                      const char *name, const eqnn_lie_resnet_opts *opts)
{
    eqnn_lie_cloud cloud;
    if (!eqnn__particles_good(z, particles, "lie_energy") ||
        !eqnn__given(z->ctx, g != NULL, "lie_energy", "the group is") ||
        !eqnn__no_use(z->ctx, "lie_energy", opts && opts->no_pool, ".no_pool",
                      "where an example has one energy", "for a row of each node"))
        return NULL;
    eqnn_tensor *x = eqnn_centred(eqnn_slice(z, 0, z->cols / 2), particles->graph);
    if (!eqnn_lie_cloud_make(g, x, particles->graph, "lift", samples, alpha, &cloud)) return NULL;
    eqnn_tensor *constants = eqnn_repeat(particles->constants, samples);
    eqnn_tensor *V = eqnn_lie_resnet(constants, &cloud, name, 1, opts);
    return eqnn_add(eqnn_kinetic(z, particles), V);
}

/* --- baselines --- */

/* Linear layers PREFIX.0.0, PREFIX.1.0, ... with silu behind each, and PREFIX.L */
static eqnn_tensor *eqnn__plain_net(eqnn_tensor *x, const eqnn_baseline_opts *o, int out)
{
    char layer[32];
    for (int k = 0; k < o->layers; k++) {
        snprintf(layer, sizeof layer, "net.%d.0", k);
        x = eqnn_silu(eqnn_linear(x, layer, o->width, NULL));
    }
    snprintf(layer, sizeof layer, "net.%d", o->layers);
    return eqnn_linear(x, layer, out, NULL);
}

/* All of an example's numbers in one row: [nodes,k] -> [examples,n k], n particles each; -1 and an
   error where examples differ. */
static int eqnn__particles_each(const eqnn_graph *graph)
{
    int examples = graph->examples > 0 ? graph->examples : 1, n = graph->targets / examples;
    for (int i = 0; graph->example && i < graph->targets; i++)
        if (n == 0 || graph->example[i] != i / n) n = -1;
    if (n > 0 && n * examples == graph->targets) return n;
    eqnn__fail(graph->ctx,
               "particle_baseline: %d particles in %d examples; fc and hfc need the same number "
               "in each", graph->targets, examples);
    return -1;
}

/* dz/dt, or V, by a network that sees rows of numbers. */
static eqnn_tensor *eqnn__plain_particles(eqnn_tensor *z, const eqnn_particles *a, int energy,
                                          const eqnn_baseline_opts *o)
{
    int d = z->cols / 2, n = eqnn__particles_each(a->graph), N = z->rows;
    if (n < 0) return NULL;
    int sets = N / n, s = a->constants->cols;
    eqnn_tensor *q = eqnn_centred(eqnn_slice(z, 0, d), a->graph), *x[3];
    if (energy) {
        x[0] = eqnn_concat(q, a->constants);
        return eqnn__plain_net(eqnn_reshape(x[0], sets, n * (d + s)), o, 1);
    }
    x[0] = eqnn_reshape(q, sets, n * d);
    x[1] = eqnn_reshape(eqnn_slice(z, d, d), sets, n * d);
    x[2] = eqnn_reshape(a->constants, sets, n * s);
    eqnn_tensor *y = eqnn__plain_net(eqnn_concat_n(x, 3), o, 2 * n * d);
    eqnn_tensor *dq = eqnn_reshape(eqnn_slice(y, 0, n * d), N, d);
    eqnn_tensor *dp = eqnn_reshape(eqnn_slice(y, n * d, n * d), N, d);
    return eqnn_concat(dq, dp);
}

/* silu(linear 2 (silu(linear 0))) of several things side by side */
static eqnn_tensor *eqnn__graph_mlp(eqnn_tensor *const *x, int n, const char *prefix, int width)
{
    char name[96];
    snprintf(name, sizeof name, "%.90s.0", prefix);
    eqnn_tensor *h = eqnn_silu(eqnn_linear(eqnn_concat_n(x, n), name, width, NULL));
    snprintf(name, sizeof name, "%.90s.2", prefix);
    return eqnn_silu(eqnn_linear(h, name, width, NULL));
}

/* Features of the example at each of its edges or nodes: index NULL when there is one example. */
static eqnn_tensor *eqnn__example_rows(eqnn_tensor *x, const eqnn_graph *graph, int edges)
{
    eqnn_tensor *node = graph->example ? eqnn_take(x, graph->example_index)
                                       : eqnn_stretch(x, graph->targets, eqnn_cols(x));
    return edges ? eqnn_gather_target(node, graph) : node;
}

/* *node, *edge and *global after one layer; global only if wanted. */
static void eqnn__graph_layer(const eqnn_graph *graph, int layer, int width, int want_global,
                              eqnn_tensor **node, eqnn_tensor **edge, eqnn_tensor **global)
{
    char name[96];
    eqnn_tensor *x[4] = { eqnn_gather(*node, graph), eqnn_gather_target(*node, graph), *edge,
                          NULL };
    x[3] = eqnn__example_rows(*global, graph, 1);
    snprintf(name, sizeof name, "gnlayers.%d.layer.edge_model.edge_mlp", layer);
    *edge = eqnn__graph_mlp(x, 4, name, width);
    eqnn_tensor *sum = eqnn_scatter(*edge, graph);
    x[0] = *node, x[1] = sum, x[2] = eqnn__example_rows(*global, graph, 0);
    snprintf(name, sizeof name, "gnlayers.%d.layer.node_model.node_mlp", layer);
    *node = eqnn__graph_mlp(x, 3, name, width);
    if (!want_global) return;
    x[0] = *global, x[1] = eqnn_pool_sum(sum, graph), x[2] = eqnn_pool_sum(*node, graph);
    snprintf(name, sizeof name, "gnlayers.%d.layer.global_model.global_mlp", layer);
    *global = eqnn__graph_mlp(x, 3, name, width);
}

/* Edges and examples begin with the number 1. */
static eqnn_tensor *eqnn__graph_particles(eqnn_tensor *z, const eqnn_particles *a, char kind,
                                          const eqnn_baseline_opts *o)
{
    const eqnn_graph *graph = a->graph;
    int d = z->cols / 2;
    eqnn_tensor *x[3], *node, *edge = eqnn_full(z->ctx, graph->edges, 1, 1);
    eqnn_tensor *global = eqnn_full(z->ctx, graph->examples > 0 ? graph->examples : 1, 1, 1);
    x[0] = eqnn_centred(eqnn_slice(z, 0, d), graph);
    x[1] = kind == 'v' ? a->constants : eqnn_slice(z, d, d);
    x[2] = a->constants;
    node = eqnn_concat_n(x, kind == 'v' ? 2 : 3);
    for (int k = 0; k < o->layers; k++)
        eqnn__graph_layer(graph, k, o->width, kind != 'o' || k + 1 < o->layers, &node, &edge,
                          &global);
    if (kind != 'o') return eqnn_linear(global, "linear", 1, NULL);
    eqnn_tensor *dq = eqnn_linear(node, "qlinear", d, NULL);
    eqnn_tensor *dp = eqnn_linear(node, "plinear", d, NULL);
    return eqnn_concat(dq, dp);
}

static eqnn_baseline_opts eqnn__baseline_defaults(const eqnn_baseline_opts *opts, int layers)
{
    eqnn_baseline_opts o;
    memset(&o, 0, sizeof o);
    if (opts) o = *opts;
    if (o.width == 0) o.width = 256;
    if (o.layers == 0) o.layers = layers;
    return o;
}

EQNN_API eqnn_tensor *eqnn_particle_baseline(eqnn_tensor *z, const eqnn_particles *particles,
                                             const char *kind, const char *name,
                                             const eqnn_baseline_opts *opts)
{
    static const char *const kinds[5] = { "fc", "hfc", "ogn", "hogn", "vogn" };
    int k = 0;
    if (!eqnn__particles_good(z, particles, "particle_baseline") ||
        !eqnn__given(z->ctx, kind != NULL, "particle_baseline", "the kind of network is"))
        return NULL;
    while (k < 5 && strcmp(kind, kinds[k])) k++;
    if (k == 5)
        return eqnn__fail(z->ctx, "particle_baseline: no network \"%.40s\"; there are fc, hfc, "
                                  "ogn, hogn and vogn", kind);
    eqnn_baseline_opts o = eqnn__baseline_defaults(opts, k < 2 ? 4 : 1);
    if (!eqnn__positive(z->ctx, "particle_baseline", ".width", o.width) ||
        !eqnn__positive(z->ctx, "particle_baseline", ".layers", o.layers))
        return NULL;
    eqnn_tensor *T = k == 1 || k == 4 ? eqnn_kinetic(z, particles) : NULL;
    z = eqnn_enter(z, name);
    if (!z) return NULL;
    eqnn_tensor *y = k < 2 ? eqnn__plain_particles(z, particles, k == 1, &o)
                           : eqnn__graph_particles(z, particles, kind[0], &o);
    return eqnn_leave(T ? eqnn_add(T, y) : y);
}

/* ------------------------------------------------------------------------------------------------
   8 >>lietransformer
   ---------------------------------------------------------------------------------------------- */

/* --- linear maps of heads --- */

/* Every head's map from `in` numbers of its own to `out`: blocks of one matrix product. */
static const void *eqnn__heads_mix(eqnn_ctx *c, int heads, int in, int out)
{
    const void **plan = eqnn__plan_find(c, EQNN__HEADS_MIX, heads, in, out);
    if (!plan || *plan) return plan ? *plan : NULL;
    eqnn__mix_block *block = (eqnn__mix_block *)eqnn__temp(c, (size_t)heads, sizeof *block);
    if (!block) return NULL;
    for (int h = 0; h < heads; h++) {
        eqnn__mix_block m = { 1, in, out, h * in, in, h * in * out, h * out, out, 1 };
        block[h] = m;
    }
    return *plan = eqnn__mix_plan(c, block, heads);
}

/* M [width, heads*out], M[d][h,o] = W[h][first+d][o]: heads that see the same numbers are one
   product. */
static eqnn_tensor *eqnn__heads_beside(eqnn_tensor *W, int heads, int first, int width)
{
    int in = W->rows / heads, out = W->cols, n = width * heads * out;
    int *at = (int *)eqnn__temp(W->ctx, (size_t)n, sizeof *at);
    for (int i = 0; at && i < n; i++) {
        int d = i / (heads * out), h = i / out % heads;
        at[i] = (h * in + first + d) * out + i % out;
    }
    eqnn_ints *index = at ? eqnn_ints_make(W->ctx, n, at, W->rows * out, 0) : NULL;
    eqnn_tensor *flat = eqnn_reshape(W, 1, W->rows * out);
    return index ? eqnn_reshape(eqnn_columns(flat, index), width, heads * out) : NULL;
}

/* Rows first..first+width-1 of every head's matrix */
static eqnn_tensor *eqnn__heads_rows(eqnn_tensor *W, int heads, int first, int width)
{
    int in = W->rows / heads, n = heads * width;
    int *row = (int *)eqnn__temp(W->ctx, (size_t)n, sizeof *row);
    for (int i = 0; row && i < n; i++) row[i] = i / width * in + first + i % width;
    eqnn_ints *index = row ? eqnn_ints_make(W->ctx, n, row, W->rows, 0) : NULL;
    return index ? eqnn_take(W, index) : NULL;
}

/* [heads*width, heads]: 1 where the row is the head's */
static eqnn_tensor *eqnn__heads_mask(eqnn_ctx *c, int heads, int width)
{
    eqnn_tensor *x = eqnn__new(c, heads * width, heads);
    eqnn_real *v = x ? eqnn__to_write(c, x->data, eqnn__count(x)) : NULL;
    if (!v) return NULL;
    memset(v, 0, eqnn__count(x) * sizeof *v);
    for (int i = 0; i < heads * width; i++) v[i * heads + i / width] = 1;
    eqnn__written(c, x->data, v, eqnn__count(x));
    return x;
}

/* What the heads' networks see: x [rows, heads*width], or [rows, width] when all see the same. */
typedef struct eqnn__heads_part {
    eqnn_tensor *x;
    int width, shared;
    int before; /* columns that this part's follow: parts with equal ones are summed */
    int at;     /* rows are EQNN__EACH edge's, the SOURCE's or the TARGET's */
} eqnn__heads_part;

/* [rows, heads*out] by those rows of W [heads*in, out] that belong to this part */
static eqnn_tensor *eqnn__heads_linear(const eqnn__heads_part *p, eqnn_tensor *W, int heads)
{
    eqnn_tensor *x = p->x;
    if (!x || !W) return NULL;
    if (p->shared) return eqnn_matmul(x, eqnn__heads_beside(W, heads, p->before, p->width));
    if (p->width * heads < W->rows) W = eqnn__heads_rows(W, heads, p->before, p->width);
    if (!W) return NULL;
    if (W->cols == 1) {
        eqnn_tensor *mask = eqnn__heads_mask(x->ctx, heads, p->width);
        return eqnn_matmul(x, eqnn_mul(W, mask));
    }
    const void *mix = eqnn__heads_mix(x->ctx, heads, p->width, W->cols);
    int cols = heads * W->cols;
    return mix ? eqnn__mix(mix, x, eqnn_reshape(W, 1, W->rows * W->cols), cols) : NULL;
}

/* --- networks of heads --- */

/* y = W x + b for every head, over n parts of x side by side, [edges, heads*out] */
static eqnn_tensor *eqnn__heads_sum(const eqnn__heads_part *part, int n, int out, int heads,
                                    const eqnn_graph *g)
{
    eqnn_ctx *c = g->ctx;
    eqnn_tensor *y = NULL;
    int in = part[n - 1].before + part[n - 1].width;
    eqnn_init init = eqnn__torch_init(in);
    eqnn_tensor *W = eqnn_param(c, "weight", heads * in, out, &init);
    eqnn_tensor *b = eqnn_param(c, "bias", heads, out, &init);
    for (int k = 0; k < n; k++) {
        eqnn_tensor *t = eqnn__heads_linear(&part[k], W, heads);
        if (part[k].at == EQNN__SOURCE) t = eqnn_gather(t, g);
        if (part[k].at == EQNN__TARGET) t = eqnn_gather_target(t, g);
        y = y ? eqnn__add_here(y, t) : t;
    }
    return b ? eqnn__add_here(y, eqnn_reshape(b, 1, heads * out)) : NULL;
}

/* A stage of a network: linear.module, norm, act. The heads share the norm's statistics. */
static eqnn_tensor *eqnn__heads_stage(const eqnn__heads_part *part, int n, int stage, int out,
                                      const eqnn_lie_attention_opts *o, const eqnn_graph *g)
{
    eqnn_ctx *c = g->ctx;
    const char *name = eqnn_format(c, "LinNormAct_%d", stage);
    if (!name || !eqnn__scope_push(c, name) || !eqnn__scope_push(c, "linear.module")) return NULL;
    eqnn_tensor *y = eqnn_leave(eqnn__heads_sum(part, n, out, o->heads, g));
    if (y && o->kernel_norm) {
        int rows = y->rows;
        y = eqnn__lie_norm(eqnn_reshape(y, rows * o->heads, out), "norm", o->published);
        y = eqnn_reshape(y, rows, o->heads * out);
    }
    return eqnn_leave(eqnn_map(y, o->act, 0, 0));
}

/* M of the parts: [edges, heads] */
static eqnn_tensor *eqnn__heads_mlp(const eqnn__heads_part *part, int n, const char *name,
                                    const eqnn_lie_attention_opts *o, const eqnn_graph *g)
{
    eqnn__heads_part next = { NULL, 0, 0, 0, EQNN__EACH };
    next.width = o->kernel_dim;
    if (!eqnn__scope_push(g->ctx, name)) return NULL;
    next.x = eqnn__heads_stage(part, n, 1, o->kernel_dim, o, g);
    if (next.x) next.x = eqnn__heads_stage(&next, 1, 2, o->kernel_dim, o, g);
    return eqnn_leave(next.x ? eqnn__heads_stage(&next, 1, 3, 1, o, g) : NULL);
}

/* --- logits --- */

/* One call of attention. */
typedef struct eqnn__listen {
    eqnn_tensor *x, *pairs;
    const eqnn_graph *g;
    const eqnn_lie_attention_opts *o;
    eqnn_ints *head; /* of a column */
    double scale;    /* 1 / sqrt(columns of a head) */
} eqnn__listen;

/* q_i . k_j of every head, [edges, heads]: the derivative of eqnn__head_sum's message form by its
   weights, which stores nothing of size edges * columns. */
static eqnn_tensor *eqnn__heads_dot(eqnn_tensor *q, eqnn_tensor *k, int heads, const eqnn_graph *g)
{
    eqnn__form f;
    if (!q || !k) return NULL;
    eqnn_ctx *c = q->ctx;
    if (eqnn__heads_dense(g))
        return eqnn_transpose(
            eqnn__heads_slope(EQNN__BY_W, eqnn__bare(q), eqnn__bare(k), heads, g));
    k = eqnn__with_label(k);
    const eqnn_irreps *one = eqnn_irreps_make(c, "1x0e");
    const eqnn_product *p = k ? eqnn_product_channelwise(c, k->label, one, NULL, NULL) : NULL;
    eqnn_tensor *V = p ? eqnn_transpose(eqnn__heads_mask(c, heads, q->cols / heads)) : NULL;
    eqnn_tensor *v[EQNN__SLOTS] = { k, NULL, NULL, V, q };
    if (!V || !(v[1] = eqnn_full(c, g->edges, 1, 1))) return NULL;
    eqnn__form_start(&f, EQNN__COUPLE, 5, g->edges, eqnn__product_plan(p, EQNN__ALONG_X));
    f.graph = g;
    f.weighted = 1;
    eqnn__slot(&f, 0, EQNN__SOURCE, k->rows, k->cols);
    eqnn__slot(&f, 1, EQNN__EACH, g->edges, 1);
    eqnn__slot(&f, 2, EQNN__EACH, g->edges, heads);
    eqnn__slot(&f, 3, EQNN__ONE, V->rows, V->cols);
    eqnn__slot(&f, 4, EQNN__TARGET, q->rows, q->cols);
    return eqnn__form_value(c, &f, v, 2);
}

/* q_i . k_j / sqrt(d) */
static eqnn_tensor *eqnn__listen_content(const eqnn__listen *a)
{
    eqnn_tensor *q = eqnn_linear(a->x, "fc_q", a->x->cols, NULL);
    eqnn_tensor *k = eqnn_linear(a->x, "fc_k", a->x->cols, NULL);
    return eqnn__heads_dot(eqnn_scale(q, a->scale), k, a->o->heads, a->g);
}

/* The location's network, which sees one edge at a time */
typedef struct eqnn__listen_place {
    eqnn_lie_attention_opts o;
    const eqnn_graph *g;
    const char *name;
} eqnn__listen_place;

static eqnn_tensor *eqnn__listen_location_of(eqnn_tensor *const *x, int n, void *user)
{
    const eqnn__listen_place *u = (const eqnn__listen_place *)user;
    eqnn__heads_part part = { NULL, 0, 1, 0, EQNN__EACH };
    (void)n;
    part.x = x[0];
    part.width = x[0]->cols;
    return eqnn__heads_mlp(&part, 1, u->name, &u->o, u->g);
}

/* With a norm's statistics all edges go at once. */
static eqnn_tensor *eqnn__listen_location(const eqnn__listen *a, const char *name)
{
    eqnn__listen_place u;
    memset(&u, 0, sizeof u);
    u.o = *a->o;
    u.g = a->g;
    u.name = name;
    int run = u.o.kernel_norm && a->g->ctx->training ? -1 : u.o.run;
    return eqnn__lie_in_runs(a->pairs, run, eqnn__listen_location_of, &u, sizeof u);
}

/* (q_i . k_j + (q_i + v) . e_ij + u . k_j) / sqrt(d) */
static eqnn_tensor *eqnn__listen_relative(const eqnn__listen *a)
{
    eqnn_init zeros;
    eqnn_ctx *c = a->x->ctx;
    int cols = a->x->cols, heads = a->o->heads;
    memset(&zeros, 0, sizeof zeros);
    zeros.kind = EQNN_INIT_ZEROS;
    eqnn_tensor *q = eqnn_linear(a->x, "W_q", cols, NULL);
    eqnn_tensor *k = eqnn_linear(a->x, "W_k", cols, NULL);
    eqnn_tensor *e = eqnn_linear(a->pairs, "W_l", cols, NULL);
    eqnn_tensor *u = eqnn_param(c, "u", heads, cols / heads, &zeros);
    eqnn_tensor *v = eqnn_param(c, "v", heads, cols / heads, &zeros);
    if (!u || !v) return NULL;
    u = eqnn_collect_columns(eqnn_mul(k, eqnn_reshape(u, 1, cols)), a->head);
    v = eqnn_gather_target(eqnn_add(q, eqnn_reshape(v, 1, cols)), a->g);
    eqnn_tensor *l = eqnn__heads_dot(q, k, heads, a->g);
    l = eqnn_add(l, eqnn_collect_columns(eqnn_mul(v, e), a->head));
    return eqnn_scale(eqnn_add(l, eqnn_gather(u, a->g)), a->scale);
}

/* Half of F = C (A x_i, B x_j): columns first..first+e-1 of C [e, 2e] for each head's numbers */
static eqnn_tensor *eqnn__listen_half(eqnn_tensor *x, eqnn_tensor *C, int heads, int first, int e)
{
    int n = eqnn_rows(x);
    eqnn_tensor *rows = eqnn_reshape(x, n * heads, e);
    return eqnn_reshape(eqnn_matmul_t(rows, eqnn_slice(C, first, e), 0, 1), n, heads * e);
}

/* The parts of F for c 2 and 3. The authors call "k" what belongs to the asking node. */
static int eqnn__listen_features(const eqnn__listen *a, int linear, eqnn__heads_part *part)
{
    int heads = a->o->heads, e = a->o->feature_dim, width = linear ? e : e / 2;
    eqnn_tensor *i = eqnn_linear(a->x, "fc_k", heads * width, NULL);
    eqnn_tensor *j = eqnn_linear(a->x, "fc_q", heads * width, NULL);
    if (linear && i && j) {
        eqnn_init init = eqnn__torch_init(2 * e);
        if (!eqnn__scope_push(a->x->ctx, "fc_o")) return 0;
        eqnn_tensor *C = eqnn_param(a->x->ctx, "weight", e, 2 * e, &init);
        eqnn_tensor *b = eqnn_leave(eqnn_param(a->x->ctx, "bias", 1, e, &init)), *all[64];
        for (int h = 0; h < heads; h++) all[h] = b;
        b = eqnn_concat_n(all, heads);
        i = eqnn_add(eqnn__listen_half(i, C, heads, 0, e), b);
        j = eqnn__listen_half(j, C, heads, e, e);
    }
    eqnn__heads_part of_i = { NULL, 0, 0, 0, EQNN__TARGET };
    eqnn__heads_part of_j = { NULL, 0, 0, 0, EQNN__SOURCE };
    of_i.x = i, of_j.x = j;
    of_i.width = of_j.width = width;
    of_j.before = linear ? 0 : width; /* C's halves are summed already */
    part[0] = of_i, part[1] = of_j;
    return 2;
}

/* Kernels of four digits: M of features and location */
static eqnn_tensor *eqnn__listen_combined(const eqnn__listen *a, const char *code)
{
    eqnn__heads_part part[3] = { { NULL, 1, 0, 0, EQNN__EACH } };
    eqnn__heads_part location = { NULL, 1, 0, 0, EQNN__EACH };
    int n = 1;
    if (!eqnn__scope_push(a->x->ctx, "feature_featurisation")) return NULL;
    if (code[2] == '1') part[0].x = eqnn__listen_content(a);
    else n = eqnn__listen_features(a, code[2] == '3', part);
    eqnn_leave(part[0].x);
    if (code[3] == '1') {
        location.x = eqnn__listen_location(a, "location_featurisation.1");
    } else {
        location.x = a->pairs;
        location.width = a->pairs->cols;
        location.shared = 1;
    }
    location.before = part[n - 1].before + part[n - 1].width;
    part[n++] = location;
    if (a->x->ctx->failed) return NULL;
    return eqnn__heads_mlp(part, n, "location_feature_combination.1", a->o, a->g);
}

static eqnn_tensor *eqnn__listen_logits(const eqnn__listen *a)
{
    const char *kernel = a->o->kernel;
    if (!eqnn__scope_push(a->x->ctx, "kernel")) return NULL;
    eqnn_tensor *content = NULL, *location = NULL;
    if (!strcmp(kernel, "relative_position")) return eqnn_leave(eqnn__listen_relative(a));
    if (kernel[0] == '1' || kernel[0] == '2') return eqnn_leave(eqnn__listen_combined(a, kernel));
    if (strcmp(kernel, "location_only")) {
        if (!eqnn__scope_push(a->x->ctx, "feature_kernel")) return NULL;
        content = eqnn_leave(eqnn__listen_content(a));
    }
    if (strcmp(kernel, "dot_product_only")) location = eqnn__listen_location(a, "location_kernel");
    return eqnn_leave(!content ? location : !location ? content : eqnn_add(content, location));
}

/* --- attention --- */

/* 1 for names this section knows, and codes [12]2[123][012] */
static int eqnn__listen_known(eqnn_ctx *c, const eqnn_lie_attention_opts *o)
{
    static const char *const kernels[] = { "mlp", "dot_product_only", "location_only",
                                           "relative_position" };
    const char *k = o->kernel;
    int known = strlen(k) == 4 && strchr("12", k[0]) && k[1] == '2' && strchr("123", k[2]) &&
                strchr("012", k[3]);
    for (int i = 0; i < 4; i++) known |= !strcmp(k, kernels[i]);
    if (!known)
        eqnn__fail(c, "lie_attention: unknown kernel \"%s\"; there are mlp, dot_product_only, "
                   "location_only, relative_position and codes [12]2[123][012]", k);
    if (strcmp(o->attention, "softmax") && strcmp(o->attention, "dot_product") &&
        strcmp(o->attention, "norm_exp"))
        eqnn__fail(c, "lie_attention: unknown attention \"%s\"; there are softmax, dot_product and "
                   "norm_exp", o->attention);
    return !c->failed;
}

static eqnn_lie_attention_opts eqnn__lie_attention_defaults(const eqnn_lie_attention_opts *opts,
                                                            int cols)
{
    eqnn_lie_attention_opts o;
    memset(&o, 0, sizeof o);
    if (opts) o = *opts;
    if (!o.kernel) o.kernel = "mlp";
    if (!o.attention) o.attention = "softmax";
    if (o.heads == 0) o.heads = 8;
    if (o.kernel_dim == 0) o.kernel_dim = 16;
    if (o.act == EQNN_IDENTITY) o.act = EQNN_SILU;
    const char *kernel = o.kernel;
    int few = o.heads > 0 ? cols / 4 / o.heads : 0, even = strlen(kernel) == 4 && kernel[2] == '2';
    if (!o.feature_dim) o.feature_dim = few < 2 ? 2 : even ? few - few % 2 : few;
    return o;
}

/* Can x be listened to that way? The first digit of a code says what .attention is. */
static int eqnn__listen_good(eqnn_tensor *x, eqnn_lie_attention_opts *o)
{
    if (!eqnn__listen_known(x->ctx, o) ||
        !eqnn__positive(x->ctx, "lie_attention", ".kernel_dim", o->kernel_dim))
        return 0;
    if (o->heads < 1 || o->heads > 64 || x->cols == 0 || x->cols % o->heads)
        eqnn__fail(x->ctx, "lie_attention: %d columns for %d heads (1 to 64, of equal width)",
                   x->cols, o->heads);
    int code = o->kernel[0] == '1' || o->kernel[0] == '2';
    if (code && o->kernel[2] > '1' && (o->feature_dim < 1 || (o->kernel[2] == '2' &&
                                                             o->feature_dim % 2)))
        eqnn__fail(x->ctx, "lie_attention: kernel \"%s\" cannot have %d numbers of features "
                   "(.feature_dim: at least 1, even for c 2)", o->kernel, o->feature_dim);
    if (code) o->attention = o->kernel[0] == '1' ? "softmax" : "dot_product";
    return !x->ctx->failed;
}

static int eqnn__listen_fits(eqnn_tensor *x, eqnn_tensor *pairs, const eqnn_graph *g,
                             const eqnn_lie_attention_opts *o)
{
    if (!g || x->rows != g->targets || g->sources != g->targets) {
        eqnn__fail(x->ctx, "lie_attention: %d rows of features for %d sources and %d targets",
                   x->rows, g ? g->sources : 0, g ? g->targets : 0);
        return 0;
    }
    if (!strcmp(o->kernel, "dot_product_only")) return 1;
    if (eqnn__bad2(x, pairs, "lie_attention")) return 0;
    if (pairs->rows == g->edges && pairs->cols > 0 && eqnn__invariant(pairs->label)) return 1;
    eqnn__fail(x->ctx, "lie_attention: pairs %s [%d,%d] for %d edges",
               eqnn__label_text(pairs->label), pairs->rows, pairs->cols, g->edges);
    return 0;
}

/* Is everything that is set of use to this kernel? M also says where act and kernel_norm stand; in
   a block they stand in its own M, too. */
static int eqnn__listen_uses(eqnn_ctx *c, const eqnn_lie_attention_opts *o, int block)
{
    if (!o || c->failed) return !c->failed;
    const char *kernel = o->kernel ? o->kernel : "mlp", *option = NULL;
    const char *what = "of M, which mlp, location_only and codes have";
    int code = kernel[0] == '1' || kernel[0] == '2';
    int mlp = code || !strcmp(kernel, "mlp") || !strcmp(kernel, "location_only");
    const char *own = kernel[0] == '1' ? "softmax" : "dot_product";
    if (!mlp && o->kernel_dim) option = ".kernel_dim";
    else if (!mlp && !block && o->kernel_norm) option = ".kernel_norm";
    else if (!mlp && !block && o->act) option = ".act";
    else if (!(code && kernel[2] > '1') && o->feature_dim)
        option = ".feature_dim", what = "of F, which codes with c 2 and 3 have";
    else if (!(mlp && (!code || kernel[3] == '1')) && o->run > 0)
        option = ".run", what = "of M(pair), which mlp, location_only and codes with d 1 have";
    else if (code && o->attention && strcmp(o->attention, own))
        option = ".attention", what = kernel[0] == '1' ? "\"softmax\" by its first digit"
                                                       : "\"dot_product\" by its first digit";
    return !option || eqnn__no_use(c, "lie_attention", 1, option,
                                   eqnn_format(c, "to kernel \"%.40s\"", kernel), what);
}

static eqnn_tensor *eqnn__lie_attention(eqnn_tensor *x, eqnn_tensor *pairs, const eqnn_graph *g,
                                        const char *name, const eqnn_lie_attention_opts *opts,
                                        int block)
{
    eqnn__listen a;
    x = eqnn_enter(eqnn__plain(x, "lie_attention", name, "lifted points"), name);
    if (!x) return NULL;
    eqnn_lie_attention_opts o = eqnn__lie_attention_defaults(opts, x->cols);
    if (!eqnn__listen_good(x, &o) || !eqnn__listen_fits(x, pairs, g, &o) ||
        !eqnn__listen_uses(x->ctx, opts, block))
        return NULL;
    a.x = x, a.pairs = pairs, a.g = g, a.o = &o;
    a.head = eqnn__head_columns(x->ctx, o.heads, x->cols / o.heads, 0);
    a.scale = 1 / sqrt((double)(x->cols / o.heads));
    eqnn_tensor *w = a.head ? eqnn__listen_logits(&a) : NULL;
    if (o.logits) *o.logits = w;
    if (!strcmp(o.attention, "softmax")) w = eqnn_edge_softmax(w, g);
    if (!strcmp(o.attention, "norm_exp")) w = eqnn_exp(w);
    eqnn_tensor *v = eqnn_linear(x, "input_linear", x->cols, NULL);
    eqnn_tensor *y = eqnn__head_sum(v, w, a.head, g);
    if (strcmp(o.attention, "softmax")) y = eqnn_mul(y, eqnn_inverse_degree(g));
    return eqnn_leave(eqnn_linear(y, "output_linear", x->cols, NULL));
}

EQNN_API eqnn_tensor *eqnn_lie_attention(eqnn_tensor *x, eqnn_tensor *pairs, const eqnn_graph *g,
                                         const char *name, const eqnn_lie_attention_opts *opts)
{
    return eqnn__lie_attention(x, pairs, g, name, opts, 0);
}

/* --- blocks --- */

static int eqnn__transformer_known(eqnn_ctx *c, const char *what, const char *word,
                                   const char *const *list)
{
    const char *known = "";
    for (int i = 0; list[i]; i++) {
        if (!strcmp(list[i], word)) return 1;
        known = eqnn_format(c, "%s%s%s", known, !i ? "" : list[i + 1] ? ", " : " and ", list[i]);
    }
    eqnn__fail(c, "lie_transformer: unknown %s \"%s\"; there are %s", what, word, known);
    return 0;
}

/* cols: of a single block's x; 0: of a network, which makes its own */
static int eqnn__lie_transformer_defaults(eqnn_ctx *c, eqnn_lie_transformer_opts *o,
                                          const eqnn_lie_transformer_opts *opts, int cols)
{
    static const char *const norms[] = { "none",      "layer_pre",  "layer_post",
                                         "batch_pre", "batch_post", NULL };
    static const char *const heads[] = { "model_1", "lieconv", NULL };
    static const char *const head_norms[] = { "none", "layer", "batch", NULL };
    memset(o, 0, sizeof *o);
    if (opts) *o = *opts;
    if (!o->norm) o->norm = "layer_pre";
    if (!o->head) o->head = "model_1";
    if (!o->head_norm) o->head_norm = "none";
    if (cols > 0) o->cols = cols;
    if (o->cols == 0) o->cols = 160;
    if (o->layers == 0) o->layers = 5;
    if (o->out == 0) o->out = 1;
    if (!eqnn__positive(c, "lie_transformer", ".cols", o->cols) ||
        !eqnn__positive(c, "lie_transformer", ".layers", o->layers) ||
        !eqnn__positive(c, "lie_transformer", ".out", o->out))
        return 0;
    if (o->attention.act == EQNN_IDENTITY) o->attention.act = EQNN_SILU;
    return eqnn__transformer_known(c, "norm", o->norm, norms) &&
           eqnn__transformer_known(c, "head", o->head, heads) &&
           eqnn__transformer_known(c, "norm of the head", o->head_norm, head_norms);
}

/* The norm of that kind under its name, or x as it is */
static eqnn_tensor *eqnn__transformer_norm(eqnn_tensor *x, const eqnn_lie_transformer_opts *o,
                                           int post, const char *of)
{
    const char *kind = o->norm;
    if (!x || !strcmp(kind, "none") || (strstr(kind, "post") != NULL) != post) return x;
    int layer = kind[0] == 'l';
    const char *name = eqnn_format(x->ctx, "%s_%s", layer ? "ln" : "bn", of);
    return layer ? eqnn_layer_norm(x, name, NULL) : eqnn__lie_norm(x, name, o->attention.published);
}

/* x + y or, where norms stand behind, x + norm(y); y is the caller's last use of it */
static eqnn_tensor *eqnn__transformer_add(eqnn_tensor *x, eqnn_tensor *y,
                                          const eqnn_lie_transformer_opts *o, const char *of)
{
    eqnn_tensor *normed = eqnn__transformer_norm(y, o, 1, of);
    return normed == y ? eqnn__add_here(y, x) : eqnn_add(x, normed);
}

static eqnn_tensor *eqnn__transformer_mlp(eqnn_tensor *x, const eqnn_lie_transformer_opts *o)
{
    int cols = eqnn_cols(x);
    x = eqnn_enter(x, "mlp");
    for (int k = 1; x && k <= 2; k++) {
        x = eqnn_enter(x, eqnn_format(x->ctx, "LinNormAct_%d", k));
        x = eqnn_linear(x, "linear.module", cols, NULL);
        if (o->attention.kernel_norm) x = eqnn__lie_norm(x, "norm", o->attention.published);
        x = eqnn_leave(eqnn_map(x, o->attention.act, 0, 0));
    }
    return eqnn_leave(x);
}

static eqnn_tensor *eqnn__transformer_block(eqnn_tensor *x, eqnn_tensor *pairs,
                                            const eqnn_graph *g, const char *name,
                                            const eqnn_lie_transformer_opts *o)
{
    x = eqnn_enter(x, name);
    eqnn_tensor *y = eqnn__transformer_norm(x, o, 0, "ema");
    y = eqnn__lie_attention(y, pairs, g, "ema", &o->attention, 1);
    x = eqnn__transformer_add(x, y, o, "ema");
    y = eqnn__transformer_mlp(eqnn__transformer_norm(x, o, 0, "mlp"), o);
    return eqnn_leave(eqnn__transformer_add(x, y, o, "mlp"));
}

/* A block has as many columns as x, and neither ends nor a number of blocks. */
static int eqnn__transformer_block_uses(eqnn_tensor *x, const eqnn_lie_transformer_opts *o)
{
    static const char op[] = "lie_attention_block", one[] = "in a single block";
    static const char whole[] = "of eqnn_lie_transformer";
    eqnn_ctx *c = x->ctx;
    return !o || (eqnn__no_use(c, op, o->cols && o->cols != x->cols, ".cols",
                               "beside the columns of x", "as many as those") &&
                  eqnn__no_use(c, op, o->layers != 0, ".layers", one, whole) &&
                  eqnn__no_use(c, op, o->out != 0, ".out", one, whole) &&
                  eqnn__no_use(c, op, o->head != NULL, ".head", one, whole) &&
                  eqnn__no_use(c, op, o->head_norm != NULL, ".head_norm", one, whole) &&
                  eqnn__no_use(c, op, o->max_pool, ".max_pool", one, whole) &&
                  eqnn__no_use(c, op, o->squash, ".squash", one, whole));
}

EQNN_API eqnn_tensor *eqnn_lie_attention_block(eqnn_tensor *x, eqnn_tensor *pairs,
                                               const eqnn_graph *g, const char *name,
                                               const eqnn_lie_transformer_opts *opts)
{
    eqnn_lie_transformer_opts o;
    x = eqnn__plain(x, "lie_attention_block", name, "lifted points");
    if (!x || !eqnn__transformer_block_uses(x, opts) ||
        !eqnn__lie_transformer_defaults(x->ctx, &o, opts, x->cols))
        return NULL;
    return eqnn__transformer_block(x, pairs, g, name, &o);
}

/* --- the network --- */

static eqnn_tensor *eqnn__transformer_pool(eqnn_tensor *x, const eqnn_graph *g, int max)
{
    return max ? eqnn_segment_max(x, g->example_index) : eqnn_pool_mean(x, g);
}

/* Norm, act, linear, three times: numbers 0 1 2, 3 4 5, 6 7 8 of the authors' list. */
static eqnn_tensor *eqnn__transformer_model_1(eqnn_tensor *x, const eqnn_lie_transformer_opts *o)
{
    int cols = eqnn_cols(x);
    for (int k = 0; x && k < 3; k++) {
        const char *norm = eqnn_format(x->ctx, "%d", 3 * k);
        if (!strcmp(o->head_norm, "layer")) x = eqnn_layer_norm(x, norm, NULL);
        if (!strcmp(o->head_norm, "batch")) x = eqnn_batch_norm(x, norm, NULL);
        x = eqnn_map(x, o->attention.act, 0, 0);
        x = eqnn_linear(x, k == 0 ? "2" : k == 1 ? "5" : "8", k == 2 ? o->out : cols, NULL);
    }
    return x;
}

static eqnn_tensor *eqnn__transformer_head(eqnn_tensor *x, const eqnn_graph *g,
                                           const eqnn_lie_transformer_opts *o)
{
    if (!x) return NULL;
    int lieconv = !strcmp(o->head, "lieconv");
    x = eqnn_enter(x, eqnn_format(x->ctx, "%d", o->layers + (lieconv ? 1 : 2)));
    if (!lieconv)
        return eqnn_leave(eqnn__transformer_model_1(eqnn__transformer_pool(x, g, o->max_pool), o));
    x = eqnn_linear(eqnn_map(x, o->attention.act, 0, 0), "linear.module", o->out, NULL);
    return eqnn_leave(eqnn__transformer_pool(x, g, o->max_pool));
}

/* p tanh(s / 7) / s, s = |p| + 1e-6: bounded, a direction is kept */
static eqnn_tensor *eqnn__transformer_squash(eqnn_tensor *p)
{
    eqnn_tensor *s = eqnn_shift(eqnn_norm(p), 1e-6);
    return eqnn_mul(p, eqnn_div(eqnn_tanh(eqnn_scale(s, 1 / 7.0)), s));
}

EQNN_API eqnn_tensor *eqnn_lie_transformer(eqnn_tensor *x, eqnn_tensor *pairs, const eqnn_graph *g,
                                           const char *name,
                                           const eqnn_lie_transformer_opts *opts)
{
    eqnn_lie_transformer_opts o;
    x = eqnn__plain(x, "lie_transformer", name, "lifted points");
    if (!x || !eqnn__lie_transformer_defaults(x->ctx, &o, opts, 0)) return NULL;
    const char *kernel = o.attention.kernel;
    if (!eqnn__no_use(x->ctx, "lie_transformer",
                      !strcmp(o.head, "lieconv") && strcmp(o.head_norm, "none"), ".head_norm",
                      "to head \"lieconv\"", "of \"model_1\"") ||
        !eqnn__no_use(x->ctx, "lie_transformer",
                      o.squash && kernel && !strcmp(kernel, "dot_product_only"), ".squash",
                      "to kernel \"dot_product_only\"", "of pairs, which the others see"))
        return NULL;
    if (o.squash && pairs) pairs = eqnn__transformer_squash(pairs);
    x = eqnn_enter(eqnn_enter(x, name), "net");
    x = eqnn_linear(x, "0.module", o.cols, NULL);
    for (int k = 1; x && k <= o.layers; k++)
        x = eqnn__transformer_block(x, pairs, g, eqnn_format(x->ctx, "%d", k), &o);
    return eqnn_leave(eqnn_leave(eqnn__transformer_head(x, g, &o)));
}

/* --- sets --- */

static int eqnn__set_defaults(eqnn_ctx *c, eqnn_set_opts *o, const eqnn_set_opts *opts)
{
    memset(o, 0, sizeof *o);
    if (opts) *o = *opts;
    if (o->cols == 0) o->cols = 128;
    if (o->heads == 0) o->heads = 4;
    if (o->encoders == 0) o->encoders = 4;
    if (o->decoders == 0) o->decoders = 4;
    if (o->seeds == 0) o->seeds = 1;
    if (o->out == 0) o->out = 1;
    if (!eqnn__positive(c, "set_transformer", ".cols", o->cols) ||
        !eqnn__positive(c, "set_transformer", ".heads", o->heads) ||
        !eqnn__positive(c, "set_transformer", ".encoders", o->encoders) ||
        !eqnn__positive(c, "set_transformer", ".seeds", o->seeds) ||
        !eqnn__positive(c, "set_transformer", ".out", o->out))
        return 0;
    if (o->cols % o->heads)
        eqnn__fail(c, "set_transformer: %d columns for %d heads", o->cols, o->heads);
    if (o->inducing < 0)
        eqnn__fail(c, "set_transformer: %d inducing rows", o->inducing);
    return !c->failed;
}

static eqnn_tensor *eqnn__set_attend(eqnn_tensor *x, eqnn_tensor *y, const eqnn_graph *g,
                                     const char *name, const eqnn_set_opts *o)
{
    if (!y || !g || !(x = eqnn_enter(x, name))) return NULL;
    eqnn_ints *head = eqnn__head_columns(x->ctx, o->heads, o->cols / o->heads, 0);
    eqnn_tensor *q = eqnn_linear(x, "fc_q", o->cols, NULL);
    eqnn_tensor *k = eqnn_linear(y, "fc_k", o->cols, NULL);
    eqnn_tensor *v = eqnn_linear(y, "fc_v", o->cols, NULL);
    eqnn_tensor *z = q;
    if (x->rows > 0 && y->rows > 0) { /* the empty set has nothing to say */
        eqnn_tensor *l = eqnn_scale(q, 1 / sqrt((double)o->cols));
        l = eqnn_edge_softmax(eqnn__heads_dot(l, k, o->heads, g), g);
        z = head ? eqnn_add(q, eqnn__head_sum(v, l, head, g)) : NULL;
    }
    if (o->norm) z = eqnn_layer_norm(z, "ln0", NULL);
    z = eqnn_add(z, eqnn_relu(eqnn_linear(z, "fc_o", o->cols, NULL)));
    return eqnn_leave(o->norm ? eqnn_layer_norm(z, "ln1", NULL) : z);
}

EQNN_API eqnn_tensor *eqnn_set_attention(eqnn_tensor *x, eqnn_tensor *y, const eqnn_graph *g,
                                         const char *name, const eqnn_set_opts *opts)
{
    static const char op[] = "set_attention", whole[] = "of eqnn_set_transformer";
    static const char one[] = "in a single attention";
    eqnn_set_opts o;
    if (eqnn__bad2(x, y, "set_attention") || !eqnn__set_defaults(x->ctx, &o, opts)) return NULL;
    if (opts && !(eqnn__no_use(x->ctx, op, opts->encoders != 0, ".encoders", one, whole) &&
                  eqnn__no_use(x->ctx, op, opts->inducing != 0, ".inducing", one, whole) &&
                  eqnn__no_use(x->ctx, op, opts->decoders != 0, ".decoders", one, whole) &&
                  eqnn__no_use(x->ctx, op, opts->seeds != 0, ".seeds", one, whole) &&
                  eqnn__no_use(x->ctx, op, opts->out != 0, ".out", one, whole)))
        return NULL;
    if (eqnn__graph_bad(x, g, "set_attention", "targets")) return NULL;
    if (eqnn__graph_bad(y, g, "set_attention", "sources")) return NULL;
    return eqnn__set_attend(x, y, g, name, &o);
}

/* The example of row r of m rows for each example, or of node r */
static int eqnn__set_example(const eqnn_graph *g, int m, int r)
{
    return m ? r / m : g->example ? g->example[r] : 0;
}

/* Edges to `to` rows of each example (0: to its nodes) from all of `from` rows (0: its nodes) */
static const eqnn_graph *eqnn__set_graph(const eqnn_graph *g, int to, int from)
{
    eqnn_graph_opts o;
    double edges = (to && from ? (double)g->examples * to : g->targets) * (from ? from : to);
    int rows[2], m = 0, at = 0;
    if (edges > INT_MAX / 2 || (double)g->examples * (to > from ? to : from) > INT_MAX / 2) {
        eqnn__fail(g->ctx, "set_transformer: %g edges", edges);
        return NULL;
    }
    size_t size = (size_t)edges;
    rows[0] = to ? g->examples * to : g->targets;
    rows[1] = from ? g->examples * from : g->targets;
    if (!rows[0] || !rows[1]) return g; /* nobody listens: it is not read */
    int *example = (int *)eqnn__temp(g->ctx, (size_t)rows[0], sizeof *example);
    int *edge = (int *)eqnn__temp(g->ctx, 2 * size, sizeof *edge);
    if (!example || !edge) return NULL;
    for (int i = 0; i < rows[0]; i++) {
        example[i] = eqnn__set_example(g, to, i);
        while (at < rows[1] && eqnn__set_example(g, from, at) < example[i]) at++;
        for (int j = at; j < rows[1] && eqnn__set_example(g, from, j) == example[i]; j++, m++) {
            edge[m] = j;
            edge[size + (size_t)m] = i;
        }
    }
    memset(&o, 0, sizeof o);
    o.targets = rows[0], o.sources = rows[1];
    o.example = example;
    o.examples = g->examples;
    return eqnn_graph_make(g->ctx, m, edge, edge + size, &o);
}

/* The parameter of that name, [m, cols], for every example */
static eqnn_tensor *eqnn__set_learned(const eqnn_graph *g, const char *name, int m, int cols)
{
    eqnn_init init;
    size_t n = (size_t)m * (size_t)g->examples;
    int *row = n < INT_MAX ? (int *)eqnn__temp(g->ctx, n, sizeof *row) : NULL;
    if (!row) return NULL;
    memset(&init, 0, sizeof init);
    init.kind = EQNN_INIT_GLOROT_UNIFORM;
    for (size_t i = 0; i < n; i++) row[i] = (int)(i % (size_t)m);
    eqnn_ints *index = eqnn_ints_make(g->ctx, (int)n, row, m, 0);
    return index ? eqnn_take(eqnn_param(g->ctx, name, m, cols, &init), index) : NULL;
}

/* An encoder: of all with all, or by way of o->inducing rows */
static eqnn_tensor *eqnn__set_encoder(eqnn_tensor *x, const eqnn_graph *g, int b,
                                      const eqnn_set_opts *o)
{
    const char *name = x ? eqnn_format(x->ctx, "enc_layers.%d.module", b) : NULL;
    if (!name || !eqnn__scope_push(x->ctx, name)) return NULL;
    if (!o->inducing) return eqnn_leave(eqnn__set_attend(x, x, g, "mab", o));
    const eqnn_graph *in = eqnn__set_graph(g, o->inducing, 0);
    const eqnn_graph *out = in ? eqnn__set_graph(g, 0, o->inducing) : NULL;
    eqnn_tensor *few = out ? eqnn__set_learned(g, "I", o->inducing, o->cols) : NULL;
    few = eqnn__set_attend(few, x, in, "mab0", o);
    return eqnn_leave(eqnn__set_attend(x, few, out, "mab1", o));
}

EQNN_API eqnn_tensor *eqnn_set_transformer(eqnn_tensor *x, const eqnn_graph *g, const char *name,
                                           const eqnn_set_opts *opts)
{
    eqnn_set_opts o;
    x = eqnn__plain(x, "set_transformer", name, "plain numbers");
    if (!x || eqnn__graph_bad(x, g, "set_transformer", "targets")) return NULL;
    if (g->sources != g->targets)
        return eqnn__fail(x->ctx, "set_transformer: %d sources and %d targets", g->sources,
                          g->targets);
    if (!eqnn__set_defaults(x->ctx, &o, opts)) return NULL;
    x = eqnn_enter(x, name);
    for (int b = 0; b < o.encoders; b++) x = eqnn__set_encoder(x, g, b, &o);
    if (!x || !eqnn__scope_push(x->ctx, "pooling_layer.module")) return NULL;
    const eqnn_graph *pool = eqnn__set_graph(g, o.seeds, 0);
    eqnn_tensor *S = pool ? eqnn__set_learned(g, "S", o.seeds, o.cols) : NULL;
    x = eqnn_leave(eqnn__set_attend(S, x, pool, "mab", &o));
    const eqnn_graph *all = x ? eqnn__set_graph(g, o.seeds, o.seeds) : NULL;
    int b = 0;
    for (; all && b < o.decoders; b++)
        x = eqnn__set_attend(x, x, all, eqnn_format(g->ctx, "dec_layers.%d.module.mab", b), &o);
    if (!all) return NULL;
    return eqnn_leave(eqnn_linear(x, eqnn_format(g->ctx, "dec_layers.%d.module", b), o.out, NULL));
}

/* --- a finite group's transformer --- */

/* M of every head, a network of its own: pairs' columns -> as many -> 1 */
static eqnn_tensor *eqnn__finite_location(eqnn_tensor *pairs, int heads)
{
    eqnn_tensor *l[64], *t;
    for (int h = 0; h < heads; h++) {
        t = eqnn_linear(pairs, eqnn_format(pairs->ctx, "k_g.%d.0", h), pairs->cols, NULL);
        l[h] = eqnn_linear(eqnn_relu(t), eqnn_format(pairs->ctx, "k_g.%d.2", h), 1, NULL);
    }
    return eqnn_concat_n(l, heads);
}

static eqnn_tensor *eqnn__finite_layer(eqnn_tensor *x, eqnn_tensor *pairs, const eqnn_graph *g,
                                       const char *name, const eqnn_finite_opts *o)
{
    if (!(x = eqnn_enter(x, name))) return NULL;
    eqnn_ints *head = eqnn__head_columns(x->ctx, o->heads, o->cols / o->heads, 0);
    eqnn_tensor *q = eqnn_linear(x, "fc_q", o->cols, NULL);
    eqnn_tensor *k = eqnn_linear(x, "fc_k", o->cols, NULL);
    eqnn_tensor *v = eqnn_linear(x, "fc_v", o->cols, NULL);
    q = eqnn_scale(q, 1 / sqrt((double)o->cols));
    eqnn_tensor *w = eqnn__heads_dot(q, k, o->heads, g);
    w = eqnn_add(w, eqnn__finite_location(pairs, o->heads));
    if (!o->dot_product) w = eqnn_edge_softmax(w, g);
    eqnn_tensor *y = head ? eqnn__head_sum(v, w, head, g) : NULL;
    if (o->dot_product) y = eqnn_mul(y, eqnn_inverse_degree(g));
    y = eqnn_add(v, y);
    return eqnn_leave(eqnn_add(y, eqnn_relu(eqnn_linear(y, "fc_o", o->cols, NULL))));
}

static int eqnn__finite_good(eqnn_tensor *x, eqnn_tensor *pairs, const eqnn_graph *g,
                             const eqnn_finite_opts *o)
{
    const char *op = "finite_transformer";
    if (eqnn__graph_bad(pairs, g, op, "edges") || (x && eqnn__graph_bad(x, g, op, "targets")))
        return 0;
    if (g->sources != g->targets)
        eqnn__fail(g->ctx, "%s: %d sources and %d targets", op, g->sources, g->targets);
    if (!eqnn__positive(g->ctx, op, ".cols", o->cols) ||
        !eqnn__positive(g->ctx, op, ".heads", o->heads) ||
        !eqnn__positive(g->ctx, op, ".layers", o->layers) ||
        !eqnn__positive(g->ctx, op, ".out", o->out) ||
        (o->slots && !eqnn__positive(g->ctx, op, ".slots", o->slots)))
        return 0;
    if (o->heads > 64 || o->cols % o->heads)
        eqnn__fail(g->ctx, "%s: %d columns for %d heads (1 to 64, of equal width)", op, o->cols,
                   o->heads);
    return !g->ctx->failed;
}

/* What nodes are at first: of their content, or all the same learned numbers */
static eqnn_tensor *eqnn__finite_embed(eqnn_tensor *x, const eqnn_graph *g, int cols)
{
    eqnn_init init;
    memset(&init, 0, sizeof init);
    if (!eqnn__scope_push(g->ctx, "embedder")) return NULL;
    if (x) {
        x = eqnn_relu(eqnn_linear(x, "mlp.0", cols, NULL));
        return eqnn_leave(eqnn_linear(x, "mlp.2", cols, NULL));
    }
    x = eqnn_param(g->ctx, "constant_Y", 1, cols, &init);
    return eqnn_leave(x ? eqnn_stretch(x, g->targets, cols) : NULL);
}

static eqnn_finite_opts eqnn__finite_defaults(const eqnn_finite_opts *opts)
{
    eqnn_finite_opts o;
    memset(&o, 0, sizeof o);
    if (opts) o = *opts;
    if (o.cols == 0) o.cols = 128;
    if (o.heads == 0) o.heads = 4;
    if (o.layers == 0) o.layers = 4;
    if (o.out == 0) o.out = 1;
    return o;
}

EQNN_API eqnn_tensor *eqnn_finite_transformer(eqnn_tensor *x, eqnn_tensor *pairs,
                                              const eqnn_graph *g, const char *name,
                                              const eqnn_finite_opts *opts)
{
    eqnn_finite_opts o = eqnn__finite_defaults(opts);
    if (!pairs || !eqnn__finite_good(x, pairs, g, &o)) return NULL;
    eqnn_ctx *c = g->ctx;
    if (!eqnn__scope_push(c, name)) return NULL;
    x = eqnn__finite_embed(x, g, o.cols);
    for (int b = 0; b < o.layers; b++)
        x = eqnn__finite_layer(x, pairs, g, eqnn_format(c, "enc_layers.%d.mab", b), &o);
    x = o.slots > 0 ? eqnn_scale(eqnn_pool_sum(x, g), 1.0 / o.slots) : eqnn_pool_mean(x, g);
    x = eqnn_relu(eqnn_linear(x, "dec_layers.0.0", o.cols, NULL));
    return eqnn_leave(eqnn_linear(x, "dec_layers.0.2", o.out, NULL));
}

/* --- particles in motion --- */

EQNN_API eqnn_tensor *eqnn_lie_transformer_energy(eqnn_tensor *z, const eqnn_particles *particles,
                                                  const eqnn_lie *g, int samples, const char *name,
                                                  const eqnn_lie_transformer_opts *opts)
{
    const char *op = "lie_transformer_energy";
    eqnn_lie_transformer_opts o;
    eqnn_tensor *u = NULL, *q = NULL;
    if (!eqnn__particles_good(z, particles, op) ||
        !eqnn__given(z->ctx, g != NULL, op, "the group is"))
        return NULL;
    memset(&o, 0, sizeof o);
    if (opts) o = *opts;
    if (!eqnn__no_use(z->ctx, op, o.out && o.out != 1, ".out", "where an example has one energy",
                      "1"))
        return NULL;
    eqnn_tensor *x = eqnn_centred(eqnn_slice(z, 0, z->cols / 2), particles->graph);
    if (!eqnn_lie_lift(g, x, "lift", samples, &u, &q)) return NULL;
    const eqnn_graph *graph = eqnn__lifted_graph(particles->graph, samples, op);
    eqnn_tensor *pairs = graph ? eqnn_lie_pairs(g, u, q, graph) : NULL;
    eqnn_tensor *V = eqnn_repeat(particles->constants, samples);
    V = pairs ? eqnn_lie_transformer(V, pairs, graph, name, &o) : NULL;
    return V ? eqnn_add(eqnn_kinetic(z, particles), V) : NULL;
}

#endif /* EQNN_IMPLEMENTATION */

/* ------------------------------------------------------------------------------------------------
   CHANGES   0.1   sections 1 to 8

   eqnn may be used under either of the two licences below, whichever suits you.

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
   ---------------------------------------------------------------------------------------------- */
