/* trajectory.c - can an equivariant network learn how a chain of twelve beads moves?

   cc -O2 -I. examples/trajectory.c -lm -o trajectory && ./trajectory   (--help lists the options)

   The chain obeys Newton: bonds, angles, a weak attraction, no noise (eqnn_chain in eqnn_data.h).
   Each sample is the chain now, and the model says where every bead is one frame later. You will
   see a table: models (--models, a list, or all) beside predictors that learn nothing at all.

      mlp                  an affine map of all coordinates (three linear layers): no symmetry
      gnn                  graph attention of plain numbers: knows translations only
      small                a polynomial in the edge vectors: equivariant, without nonlinearity
      large                equivariant gated convolutions (e3nn's network of January 2021)
      2106                 the same with mixing layers (e3nn's network of June 2021)
      attention            one SE(3)-attention head
      multi-head           several heads side by side
      attention-network    several layers of those, each of which moves the beads
      potential            forces that are the slope of a learned energy

   Positions at one moment do not hold the velocities, so with --history 1 the best possible
   prediction is hardly better than "nothing moves", whatever the correlations say. With --history 2
   (the default) a model is given the previous displacement and asked for its change:

      x(t+1) = 2 x(t) - x(t-1) + a

   and "repeat last displacement" (a = 0) is what it has to beat; after that "linear pair forces", a
   least-squares fit. Errors are in units of the data, per coordinate; the equivariance error is the
   largest |f(R x) - R f(x)| over random rotations and reflections of a random cloud of beads.

   It teaches: first ask what there is to learn, and how far one comes who learns nothing; forces
   that are the slope of a learned energy conserve it. Each model is a function of a few lines.

   Sizes of models and their rates are chosen for --history 2; with --history 1 they are those of
   the e3nn trajectory study, whose defects are mended: every frame is a graph of its own, positions
   as features are seen from the centre of their frame, attention is a softmax over the neighbours,
   whose values are summed and not averaged once more, and all heads are trained. Other differences:
   models see positions about the mean of the training data and answer in units of the targets' root
   mean square; layers of attention-network move the beads, where the study's replace their places;
   the cloud for the equivariance error is N(0,1) at radius 3.5 and shrinks with the radius.

   The study's runs, with its data (paths.npz of the dmol book):

      trajectory --history 1 --schedule constant --epochs 1000 --models mlp,gnn,small,large
                 --data paths.npz [--no-shuffle] [--target x]
      trajectory --history 1 --schedule constant --epochs 300 --models multi-head,attention-network

   More training, and a longer roll-out of the prediction fed back:

      trajectory --models large,potential --epochs 200 --rollout 200

   "make test" runs it with
      --models all --epochs 1 --frames 100 --hidden 4x0e+4x1o --heads 1 --rollout 5 --threads 1 */

#define EQNN_IMPLEMENTATION
#include "eqnn_data.h"

/* ------------------------------------------------------------------------------------------------
   What is studied
   ---------------------------------------------------------------------------------------------- */

/* The size of a model; as an option, 0 or empty means the model's own. */
typedef struct settings {
    const char *hidden;              /* irreps of the hidden features                     */
    int layers, heads, lmax, basis;  /* lmax of the harmonics; number of radial functions */
    double radius, rate;             /* of the neighbourhood; of Adam                     */
} settings;

typedef struct study {
    /* asked for */
    int history, to_position, bonds, batch, shuffle, constant_rate, rollout;
    eqnn_run_opts run; /* epochs, resume */
    double huber, decay;             /* 0: none */
    const char *data, *out, *models;
    settings asked;
    eqnn_opts context;
    /* the data: sample t leads from frame t to frame t+1 */
    eqnn_ctx *c;
    int frames, beads, coordinates;  /* coordinates of a frame: 3 * beads               */
    double *pos;                     /* [frames][coordinates]                           */
    int first, split, last;          /* training first..split-1, test split..last-1     */
    double mean[3], drift[3];        /* of position and displacement, over training     */
    double scale, speed;             /* root mean square of targets and displacements   */
    /* a batch */
    int *example;                    /* [batch*beads] which frame a bead belongs to     */
    double *before, *now, *next;     /* [batch][coordinates]                            */
    eqnn_real *edge;                 /* [batch*beads*(beads-1)][3]                      */
} study;

static const double *frame(const study *s, int t)
{
    return s->pos + (size_t)(t > 0 ? t : 0) * (size_t)s->coordinates;
}

/* What a prediction starts from; the model's part is added: x(t), 2 x(t) - x(t-1), or nothing. */
static double base(const study *s, double before, double now)
{
    return s->to_position ? 0 : s->history == 2 ? 2 * now - before : now;
}

/* ------------------------------------------------------------------------------------------------
   Data
   ---------------------------------------------------------------------------------------------- */

/* The array "arr" [frames, beads, 2 or 3] of an npz file; planar data gets z = 0. */
static int load(study *s)
{
    eqnn_npz *z = eqnn_npz_open(s->c, s->data);
    const eqnn_array *a = eqnn_npz_need(z, "arr", 3);
    int width = a ? (int)a->shape[2] : 0;
    int large_enough = a && a->shape[0] >= 10 && a->shape[1] >= 1 && a->count < 300000000;
    if (a && (width < 2 || width > 3 || !large_enough))
        eqnn_fail(s->c, "'%s': arr is [%lld, %lld, %lld]; needed: 10 frames or more, beads, 2 or 3",
                  s->data, (long long)a->shape[0], (long long)a->shape[1], (long long)a->shape[2]);
    if (!eqnn_error(s->c)) {
        s->frames = (int)a->shape[0];
        s->beads = (int)a->shape[1];
        s->pos = calloc(a->count / (size_t)width * 3, sizeof *s->pos);
        for (size_t i = 0; s->pos && i < a->count; i++)
            s->pos[i / (size_t)width * 3 + i % (size_t)width] = a->values[i];
    }
    eqnn_npz_close(z);
    return !eqnn_error(s->c);
}

static int generate(study *s)
{
    eqnn_chain_opts o = { .frames = s->frames };
    s->beads = 12;
    s->pos = malloc((size_t)s->frames * 36 * sizeof *s->pos);
    return s->pos && eqnn_chain(s->c, &o, s->pos, NULL);
}

/* Means and sizes over the training samples; they are what a model is told about units. */
static void measure(study *s)
{
    double targets = 0, steps = 0, n = (double)(s->split - s->first) * s->beads;
    for (int t = s->first; t < s->split; t++) {
        const double *x = frame(s, t);
        for (int i = 0; i < s->coordinates; i++) {
            double before = frame(s, t - 1)[i], next = frame(s, t + 1)[i];
            double target = next - base(s, before, x[i]);
            s->mean[i % 3] += x[i] / n;
            s->drift[i % 3] += (next - x[i]) / n;
            targets += target * target / (3 * n);
            steps += (x[i] - before) * (x[i] - before) / (3 * n);
        }
    }
    s->scale = targets > 0 ? sqrt(targets) : 1;
    s->speed = steps > 0 ? sqrt(steps) : 1;
}

/* Reads or makes the frames; the first 80 % of the samples are for training, the rest for the
   test. */
static int prepare(study *s)
{
    if (!(*s->data ? load(s) : generate(s))) return 0;
    s->coordinates = 3 * s->beads;
    s->first = s->history - 1;
    s->last = s->frames - 1;
    s->split = (int)(0.8 * s->last);
    size_t beads = (size_t)s->batch * (size_t)s->beads, edges = beads * (size_t)s->beads;
    s->example = malloc(beads * sizeof *s->example);
    s->before = malloc(3 * beads * sizeof *s->before);
    s->now = malloc(3 * beads * sizeof *s->now);
    s->next = malloc(3 * beads * sizeof *s->next);
    s->edge = malloc(3 * edges * sizeof *s->edge);
    if (!s->pos || !s->example || !s->before || !s->now || !s->next || !s->edge) {
        eqnn_fail(s->c, "no memory for %d frames of %d beads", s->frames, s->beads);
        return 0;
    }
    for (int i = 0; i < s->batch * s->beads; i++) s->example[i] = i / s->beads;
    measure(s);
    return 1;
}

static void release(study *s)
{
    free(s->pos);
    free(s->example);
    free(s->before);
    free(s->now);
    free(s->next);
    free(s->edge);
}

/* ------------------------------------------------------------------------------------------------
   Predictors: anything that says where the beads will be. Trivial ones need no context.
   ---------------------------------------------------------------------------------------------- */

typedef struct predictor predictor;
/* pos [beads of all frames, 3] about the origin, 1x1o; step: the previous displacement or NULL. The
   result is the target in units of its root mean square. */
typedef eqnn_tensor *(*network)(const predictor *p, eqnn_tensor *pos, eqnn_tensor *step,
                                const eqnn_graph *g);

struct predictor {
    const char *name;
    void (*predict)(predictor *p, int n, const double *before, const double *now, double *next);
    void (*fit)(predictor *p); /* what has no network but learns all the same */
    network net;
    settings set;
    const study *s;
    eqnn_ctx *c;
    eqnn_run *training;        /* while it lasts */
    double *pair;              /* linear pair forces: coefficients, then room for a frame */
    /* what came out */
    double train, test, correlation[4], error, relative, seconds;
    double *far, *energy;  /* [rollout+1] distance from the truth, relative change of energy */
    double *run;           /* [rollout+1][coordinates] one roll-out */
};

static void no_motion(predictor *p, int n, const double *before, const double *now, double *next)
{
    (void)before;
    memcpy(next, now, (size_t)n * (size_t)p->s->coordinates * sizeof *next);
}

static void mean_drift(predictor *p, int n, const double *before, const double *now, double *next)
{
    (void)before;
    for (int i = 0; i < n * p->s->coordinates; i++) next[i] = now[i] + p->s->drift[i % 3];
}

static void repeat_last(predictor *p, int n, const double *before, const double *now, double *next)
{
    for (int i = 0; i < n * p->s->coordinates; i++) next[i] = 2 * now[i] - before[i];
}

/* --- pair forces, fitted ---

   a_i = sum over j of phi(r_ij) (x_i - x_j) / r_ij,  phi piecewise linear with knots every 0.1: the
   best that forces along the lines between beads can do. With --bonds first neighbours on the
   chain, second neighbours and all others have a phi each. */

enum { KNOTS = 25, KINDS = 3 };

/* Of two beads: are they next to each other on the chain (0), one apart (1), or further (2)? */
static int kind_of(int i, int j)
{
    int apart = abs(i - j);
    return apart > 2 ? 2 : apart - 1;
}

static int pair_count(const study *s) { return s->bonds ? KINDS * KNOTS : KNOTS; }

/* J [coordinates][pair_count]: what each coefficient does to each coordinate. */
static void pair_columns(const study *s, const double *x, double *J)
{
    int m = pair_count(s);
    memset(J, 0, (size_t)s->coordinates * (size_t)m * sizeof *J);
    for (int i = 0; i < s->beads; i++)
        for (int j = 0; j < s->beads; j++) {
            double d[3], square = 0;
            for (int k = 0; k < 3; k++) d[k] = x[3 * i + k] - x[3 * j + k];
            for (int k = 0; k < 3; k++) square += d[k] * d[k];
            double r = sqrt(square), at = r / 0.1;
            int knot = (int)at, first = s->bonds && i != j ? kind_of(i, j) * KNOTS : 0;
            if (r == 0 || knot + 1 >= KNOTS) continue;
            for (int k = 0; k < 3; k++) {
                double *row = J + (3 * i + k) * m + first + knot;
                row[0] += (1 - (at - knot)) * d[k] / r;
                row[1] += (at - knot) * d[k] / r;
            }
        }
}

/* Solves A x = b, A [m][m] symmetric and positive, by Cholesky's A = L L^T in place; x is in b. */
static void solve(int m, double *A, double *b)
{
    for (int i = 0; i < m; i++)
        for (int j = 0; j <= i; j++) {
            double sum = A[i * m + j];
            for (int k = 0; k < j; k++) sum -= A[i * m + k] * A[j * m + k];
            A[i * m + j] = i == j ? sqrt(sum) : sum / A[j * m + j];
        }
    for (int i = 0; i < m; i++) {
        for (int k = 0; k < i; k++) b[i] -= A[i * m + k] * b[k];
        b[i] /= A[i * m + i];
    }
    for (int i = m - 1; i >= 0; i--) {
        for (int k = i + 1; k < m; k++) b[i] -= A[k * m + i] * b[k];
        b[i] /= A[i * m + i];
    }
}

/* Adds J^T J and J^T target of sample t to the normal equations. */
static void add_normal(const study *s, int t, const double *J, double *A, double *b)
{
    int m = pair_count(s);
    for (int i = 0; i < s->coordinates; i++) {
        const double *row = J + i * m;
        double target = frame(s, t + 1)[i] - base(s, frame(s, t - 1)[i], frame(s, t)[i]);
        for (int k = 0; k < m; k++) {
            if (row[k] == 0) continue;
            b[k] += row[k] * target;
            for (int l = 0; l <= k; l++) A[k * m + l] += row[k] * row[l];
        }
    }
}

/* Least squares by the normal equations. The ridge, a billionth of the mean diagonal, decides for
   zero where no pair of the data has such a distance. */
static void fit_pairs(predictor *p)
{
    const study *s = p->s;
    size_t m = (size_t)pair_count(s);
    double *A = calloc(m * m, sizeof *A), trace = 0;
    p->pair = calloc(m * ((size_t)s->coordinates + 1), sizeof *p->pair);
    if (!A || !p->pair) eqnn_fail(s->c, "no memory for the linear fit");
    double start = eqnn_clock();
    for (int t = s->first; t < s->split && !eqnn_error(s->c); t++) {
        pair_columns(s, frame(s, t), p->pair + m);
        add_normal(s, t, p->pair + m, A, p->pair);
    }
    for (size_t k = 0; A && k < m; k++) trace += A[k * m + k] / (double)m;
    for (size_t k = 0; A && k < m; k++) A[k * m + k] += 1e-9 * trace + 1e-300;
    if (!eqnn_error(s->c)) solve((int)m, A, p->pair);
    p->seconds = eqnn_clock() - start;
    free(A);
}

static void by_pairs(predictor *p, int n, const double *before, const double *now, double *next)
{
    const study *s = p->s;
    int m = pair_count(s), size = s->coordinates;
    for (int r = 0; p->pair && r < n; r++) {
        pair_columns(s, now + r * size, p->pair + m);
        for (int i = 0; i < size; i++) {
            double a = 0;
            for (int k = 0; k < m; k++) a += p->pair[m + i * m + k] * p->pair[k];
            next[r * size + i] = base(s, before[r * size + i], now[r * size + i]) + a;
        }
    }
}

/* --- networks --- */

/* An affine map of everything: no activation between the layers. */
static eqnn_tensor *mlp(const predictor *p, eqnn_tensor *pos, eqnn_tensor *step,
                        const eqnn_graph *g)
{
    const study *s = p->s;
    eqnn_ctx *c = eqnn_context(pos);
    int n = g ? g->examples : 0;
    eqnn_tensor *x = eqnn_reshape(eqnn_as(pos, NULL), n, s->coordinates);
    if (step) x = eqnn_concat(x, eqnn_reshape(eqnn_as(step, NULL), n, s->coordinates));
    x = eqnn_mlp(x, "", eqnn_format(c, "64,64,%d", s->coordinates),
                 &(eqnn_mlp_opts){ .linear = 1 });
    return eqnn_as(eqnn_reshape(x, eqnn_rows(pos), 3), eqnn_irreps_make(c, "1x1o"));
}

/* For each edge one of three numbers is 1: neighbours on the chain, second neighbours, others. NULL
   without --bonds. */
static eqnn_tensor *along_the_chain(const predictor *p, const eqnn_graph *g)
{
    if (!p->s->bonds || !g) return NULL;
    for (int e = 0; e < g->edges; e++)
        for (int k = 0; k < KINDS; k++)
            p->s->edge[KINDS * e + k] = k == kind_of(g->source[e], g->target[e]);
    return eqnn_from(g->ctx, g->edges, KINDS, p->s->edge);
}

/* Not equivariant: displacements are three more numbers at a node, bonds three more at an edge. */
static eqnn_tensor *gnn(const predictor *p, eqnn_tensor *pos, eqnn_tensor *step,
                        const eqnn_graph *g)
{
    eqnn_gnn_opts o = { .heads = p->set.heads, .lmax = p->set.lmax, .x = step,
                        .edge_scalars = along_the_chain(p, g) };
    return eqnn_as(eqnn_gnn(pos, g, "", &o), eqnn_label_of(pos));
}

/* What the beads know besides their places: a constant 1 and the previous displacement. */
static eqnn_tensor *features(eqnn_tensor *step)
{
    if (!step) return NULL;
    eqnn_ctx *c = eqnn_context(step);
    eqnn_tensor *one = eqnn_full(c, eqnn_rows(step), 1, 1);
    return eqnn_concat(eqnn_as(one, eqnn_irreps_make(c, "1x0e")), step);
}

/* Nothing in this model looks at an edge but its harmonics, so bonds become features of beads: the
   sums of the vectors to neighbours and to second neighbours. */
static eqnn_tensor *small(const predictor *p, eqnn_tensor *pos, eqnn_tensor *step,
                          const eqnn_graph *g)
{
    eqnn_tensor *x = features(step), *bonds = along_the_chain(p, g);
    for (int k = 0; x && bonds && k < 2; k++) {
        eqnn_tensor *r = eqnn_mul(eqnn_edge_vectors(pos, g), eqnn_slice(bonds, k, 1));
        x = eqnn_concat(x, eqnn_scatter(r, g));
    }
    eqnn_polynomial_opts o = { .mid = p->set.hidden, .out = "1x1o", .lmax = p->set.lmax,
                               .neighbours = 11, .x = x };
    return eqnn_polynomial(pos, g, "", &o);
}

/* Bonds are the same both ways: a row for each pair. */
static eqnn_tensor *of_pairs(eqnn_tensor *bonds, const eqnn_graph *g)
{
    return bonds && g->pairs ? eqnn_take(bonds, g->pair_edge_index) : bonds;
}

static eqnn_network_opts network_opts(const predictor *p, const eqnn_graph *g)
{
    return (eqnn_network_opts){ .hidden = p->set.hidden, .out = "1x1o", .layers = p->set.layers,
                                .lmax = p->set.lmax, .radius = p->set.radius,
                                .basis = p->set.basis, .neighbours = 11,
                                .edge_scalars = of_pairs(along_the_chain(p, g), g) };
}

static eqnn_tensor *large(const predictor *p, eqnn_tensor *pos, eqnn_tensor *step,
                          const eqnn_graph *g)
{
    eqnn_network_opts o = network_opts(p, g);
    return eqnn_network(features(step), NULL, pos, g, "", &o);
}

static eqnn_tensor *of_2106(const predictor *p, eqnn_tensor *pos, eqnn_tensor *step,
                            const eqnn_graph *g)
{
    eqnn_network_opts o = network_opts(p, g);
    return eqnn_network_2106(features(step), NULL, pos, g, "", &o);
}

static eqnn_multi_head_opts attention_opts(const predictor *p, const eqnn_graph *g)
{
    eqnn_attention_opts head = { .q = p->set.hidden, .out = p->set.hidden, .radius = p->set.radius,
                                 .lmax = p->set.lmax, .basis = p->set.basis, .hidden = 25,
                                 .act = EQNN_GELU, .edge_scalars = along_the_chain(p, g) };
    return (eqnn_multi_head_opts){ .head = head, .heads = p->set.heads, .layers = p->set.layers,
                                   .centred = 1, .moves = 1 };
}

/* Features of the attention models: with one frame places, seen from the centre of their frame. A
   force does not depend on where the centre is, so with two frames they are those of the others. */
static eqnn_tensor *attention_features(eqnn_tensor *pos, eqnn_tensor *step, const eqnn_graph *g)
{
    if (step || !g) return features(step);
    return eqnn_sub(pos, eqnn_take(eqnn_pool_mean(pos, g), g->example_index));
}

static eqnn_tensor *attention(const predictor *p, eqnn_tensor *pos, eqnn_tensor *step,
                              const eqnn_graph *g)
{
    eqnn_attention_opts o = attention_opts(p, g).head;
    o.out = "1x1o";
    return eqnn_attention(attention_features(pos, step, g), pos, g, "", &o);
}

static eqnn_tensor *multi_head(const predictor *p, eqnn_tensor *pos, eqnn_tensor *step,
                               const eqnn_graph *g)
{
    eqnn_multi_head_opts o = attention_opts(p, g);
    return eqnn_multi_head(attention_features(pos, step, g), pos, g, "", &o);
}

static eqnn_tensor *attention_network(const predictor *p, eqnn_tensor *pos, eqnn_tensor *step,
                                      const eqnn_graph *g)
{
    eqnn_multi_head_opts o = attention_opts(p, g);
    o.x = features(step);
    return eqnn_attention_network(pos, g, "", &o);
}

/* E = sum over beads of a network of what is around a bead, seen from any side:

      A_i = sum over j of R(r_ij) Y(x_j - x_i)    E_i = mlp(scalars of A_i, lengths of the others)

   R is a sum of radial functions, of each kind of pair its own, that fade out at the radius. The
   length of a sum of two unit vectors is 2 cos(angle / 2), so E_i knows the angles at i. The force
   -dE/dx needs no displacements: it conserves energy and momentum whatever was learned. Radial
   functions are narrow and their slopes steep, which the factor 0.1 makes up for. */
static eqnn_tensor *energy_of(const predictor *p, eqnn_tensor *pos, const eqnn_graph *g)
{
    eqnn_ctx *c = eqnn_context(pos);
    eqnn_tensor *r = eqnn_edge_vectors(pos, g), *length = eqnn_norm(r);
    eqnn_tensor *Y = eqnn_spherical_harmonics(r, p->set.lmax,
                                              &(eqnn_harmonics_opts){ .normalize = 1 });
    eqnn_tensor *fade = eqnn_map(eqnn_scale(length, 1 / p->set.radius), EQNN_POLY_CUTOFF, 4, 0);
    eqnn_tensor *b = eqnn_radial_basis(length, p->set.basis, p->set.radius, NULL);
    eqnn_tensor *bonds = along_the_chain(p, g), *kind[KINDS];
    b = eqnn_mul(b, fade);
    for (int k = 0; bonds && k < KINDS; k++) kind[k] = eqnn_mul(b, eqnn_slice(bonds, k, 1));
    if (bonds) b = eqnn_concat_n(kind, KINDS);
    eqnn_tensor *one = eqnn_as(eqnn_full(c, eqnn_rows(pos), 1, 1), eqnn_irreps_make(c, "1x0e"));
    const eqnn_product *sum = eqnn_product_full(c, eqnn_label_of(one), eqnn_label_of(Y),
                                                eqnn_irreps_make(c, p->set.hidden), NULL);
    eqnn_tensor *R = eqnn_fc(b, "radial", eqnn_format(c, "%d", eqnn_product_weights(sum)), NULL);
    eqnn_tensor *A = eqnn_message(one, Y, R, NULL, sum, g), *scalars = eqnn_extract_irrep(A, 0, 1);
    A = eqnn_concat(eqnn_as(scalars, NULL), eqnn_as(eqnn_norm_copies(A), NULL));
    return eqnn_scale(eqnn_sum(eqnn_mlp(A, "energy", "32,32,1", NULL)), 0.1);
}

/* The slope needs the tape, also where predictions are made without one. */
static eqnn_tensor *potential(const predictor *p, eqnn_tensor *pos, eqnn_tensor *step,
                              const eqnn_graph *g)
{
    (void)step;
    eqnn_ctx *c = eqnn_context(pos);
    int recording = eqnn_recording(c, 1);
    eqnn_tensor *a = eqnn_neg(eqnn_grad(energy_of(p, pos, g), pos));
    eqnn_recording(c, recording);
    return eqnn_as(a, eqnn_label_of(pos));
}

/* A network's view of n frames: places about the mean of the training data (a shift that no
   equivariant model notices), displacements of size 1, all beads packed in one graph. */
static eqnn_tensor *forward(predictor *p, int n, const double *before, const double *now)
{
    const study *s = p->s;
    int rows = n * s->beads;
    const eqnn_irreps *vector = eqnn_irreps_make(p->c, "1x1o");
    double *x = s->next;
    for (int i = 0; i < 3 * rows; i++) x[i] = now[i] - s->mean[i % 3];
    eqnn_tensor *pos = eqnn_as(eqnn_from_double(p->c, rows, 3, x), vector), *step = NULL;
    for (int i = 0; i < 3 * rows; i++) x[i] = (now[i] - before[i]) / s->speed;
    if (s->history == 2) step = eqnn_as(eqnn_from_double(p->c, rows, 3, x), vector);
    eqnn_graph_opts o = { .example = s->example, .examples = n };
    return p->net(p, pos, step, eqnn_radius_graph(pos, p->set.radius, &o));
}

static void by_network(predictor *p, int n, const double *before, const double *now, double *next)
{
    int recording = eqnn_recording(p->c, 0), size = n * p->s->coordinates;
    eqnn_tensor *y = forward(p, n, before, now);
    for (int i = 0; i < size; i++)
        next[i] = base(p->s, before[i], now[i]) + p->s->scale * eqnn_at(y, i / 3, i % 3);
    eqnn_recording(p->c, recording);
    eqnn_reset(p->c);
}

/* ------------------------------------------------------------------------------------------------
   Scores
   ---------------------------------------------------------------------------------------------- */

/* The four numbers of a frame whose correlations the study quotes: the mean of all coordinates, the
   mean of bead 1, x of bead 7, y of the last bead. */
static void series(const study *s, const double *x, double out[4])
{
    int n = s->coordinates, seventh = s->beads > 6 ? 6 : s->beads - 1;
    out[0] = 0;
    for (int i = 0; i < n; i++) out[0] += x[i] / n;
    out[1] = (x[0] + x[1] + x[2]) / 3;
    out[2] = x[3 * seventh];
    out[3] = x[n - 2];
}

/* Copies samples t, t+1, ... into the batch; returns how many of those before end fit. */
static int take(const study *s, int t, int end)
{
    int n = end - t < s->batch ? end - t : s->batch;
    size_t size = (size_t)s->coordinates;
    for (int i = 0; i < n; i++) {
        memcpy(s->before + (size_t)i * size, frame(s, t + i - 1), size * sizeof(double));
        memcpy(s->now + (size_t)i * size, frame(s, t + i), size * sizeof(double));
    }
    return n;
}

/* The mean squared error over samples from..end-1; R^2 of the four series, or correlation NULL. */
static double evaluate(predictor *p, int from, int end, double *correlation)
{
    const study *s = p->s;
    eqnn_score all = { 0 }, four[4] = { { 0 } };
    double *next = malloc((size_t)s->batch * (size_t)s->coordinates * sizeof *next);
    double truth[4], guess[4];
    if (!next) eqnn_fail(s->c, "no memory");
    for (int t = from, n; next && t < end; t += n) {
        n = take(s, t, end);
        p->predict(p, n, s->before, s->now, next);
        eqnn_score_add(&all, (size_t)(n * s->coordinates), frame(s, t + 1), next);
        for (int i = 0; correlation && i < n; i++) {
            series(s, frame(s, t + i + 1), truth);
            series(s, next + i * s->coordinates, guess);
            for (int k = 0; k < 4; k++) eqnn_score_add(&four[k], 1, &truth[k], &guess[k]);
        }
    }
    for (int k = 0; correlation && k < 4; k++) correlation[k] = eqnn_score_r2(&four[k]);
    free(next);
    return eqnn_score_mse(&all);
}

static eqnn_tensor *one_cloud(eqnn_tensor *const *x, int n, void *user)
{
    predictor *p = user;
    const eqnn_graph *g = eqnn_radius_graph(x[0], p->set.radius, NULL);
    return p->net(p, x[0], n > 1 ? x[1] : NULL, g);
}

/* Both errors of one random cloud of beads under ten random rotations and reflections. The cloud is
   as large as the neighbourhood, so that beads have neighbours: with the study's 3.5, N(0,1). */
static void check_symmetry(predictor *p)
{
    const study *s = p->s;
    const eqnn_irreps *vector = eqnn_irreps_make(p->c, "1x1o");
    eqnn_tensor *cloud = eqnn_scale(eqnn_normal(p->c, "cloud", s->beads, 3), p->set.radius / 3.5);
    eqnn_tensor *x[2] = { eqnn_as(cloud, vector),
                          eqnn_as(eqnn_normal(p->c, "steps", s->beads, 3), vector) };
    p->relative = eqnn_check_equivariance(one_cloud, x, s->history, p, 10, &p->error);
    p->error *= s->scale;
    eqnn_reset(p->c);
}

/* ------------------------------------------------------------------------------------------------
   Training
   ---------------------------------------------------------------------------------------------- */

static const char *model_path(const predictor *p)
{
    return eqnn_path_in(p->s->c, p->s->out, "%s.safetensors", p->name);
}

/* One optimizer step on the samples listed; returns the mean squared error in units of the data. In
   a rare collision beads are hundred times faster than otherwise: with --huber such an error counts
   by its size and not by its square. */
static double learn(predictor *p, eqnn_adam *adam, int n, const int *samples)
{
    const study *s = p->s;
    size_t size = (size_t)s->coordinates;
    for (int i = 0; i < n; i++) {
        memcpy(s->before + (size_t)i * size, frame(s, samples[i] - 1), size * sizeof(double));
        memcpy(s->now + (size_t)i * size, frame(s, samples[i]), size * sizeof(double));
    }
    eqnn_tensor *y = forward(p, n, s->before, s->now);
    for (int i = 0; i < n * s->coordinates; i++) {
        double next = frame(s, samples[i / s->coordinates] + 1)[i % s->coordinates];
        s->next[i] = (next - base(s, s->before[i], s->now[i])) / s->scale;
    }
    eqnn_tensor *target = eqnn_from_double(p->c, n * s->beads, 3, s->next);
    eqnn_tensor *loss = eqnn_mse(y = eqnn_as(y, NULL), target);
    double value = eqnn_value(loss) * s->scale * s->scale;
    eqnn_backward(s->huber > 0 ? eqnn_huber(y, target, s->huber) : loss);
    eqnn_adam_step(adam);
    eqnn_reset(p->c);
    return value;
}

static void step(predictor *p, eqnn_adam *adam, int n, const int *samples)
{
    const study *s = p->s;
    eqnn_schedule rate = { .kind = s->constant_rate ? EQNN_CONSTANT : EQNN_COSINE,
        .rate = p->set.rate,
        .total = (int64_t)s->run.epochs * ((s->split - s->first + s->batch - 1) / s->batch) };
    eqnn_adam_rate(adam, eqnn_schedule_rate(&rate, p->training->steps));
    eqnn_run_step(p->training, learn(p, adam, n, samples), 1);
    eqnn_run_show(p->training, "epoch %d  train %.2e", (int)p->training->epoch + 1,
                  eqnn_average_value(&p->training->loss));
}

/* A line of the log. */
static void end_epoch(predictor *p, eqnn_csv *log)
{
    p->test = evaluate(p, p->s->split, p->s->last, NULL);
    double epoch = eqnn_run_epochs(p->training);
    if (!eqnn_run_look(p->training, NAN)) return;
    const double row[] = { epoch, eqnn_average_value(&p->training->loss), p->test,
                           p->training->step_seconds / epoch };
    eqnn_csv_row(log, p->name, 4, row);
}

/* Weights come into being by a look at one sample, which leaves nothing else behind. */
static eqnn_run *begin(predictor *p)
{
    const study *s = p->s;
    int count = s->split - s->first, *samples = malloc((size_t)(count + 1) * sizeof *samples);
    eqnn_run_opts o = s->run;
    o.items = samples, o.in_order = !s->shuffle, o.batch = s->batch, o.save = 10;
    o.looks = o.epochs, o.path = model_path(p);
    eqnn_mark mark = eqnn_mark_make(p->c);
    eqnn_rewind(mark, forward(p, 1, frame(s, s->first - 1), frame(s, s->first)));
    for (int i = 0; samples && i < count; i++) samples[i] = s->first + i;
    if (!samples) eqnn_fail(p->c, "no memory for %d samples", count);
    eqnn_run *training = eqnn_run_make(p->c, p->name, count, &o);
    free(samples);
    return training;
}

static void train(predictor *p, eqnn_csv *log)
{
    const int *samples;
    p->test = NAN;
    p->training = begin(p);
    eqnn_adam *adam = eqnn_adam_make(p->c, &(eqnn_adam_opts){ .rate = p->set.rate,
                                                               .decay = p->s->decay });
    for (int n; (n = eqnn_run_next(p->training, &samples)) >= 0;) {
        if (n > 0) step(p, adam, n, samples);
        else end_epoch(p, log);
    }
    if (p->training && p->training->steps)
        p->seconds = p->training->step_seconds / eqnn_run_epochs(p->training);
    eqnn_run_free(p->training);
    p->training = NULL;
}

/* ------------------------------------------------------------------------------------------------
   Roll-outs: predictions are fed back, from several moments of the test at once.
   ---------------------------------------------------------------------------------------------- */

/* Energy of the motion about the centre of mass; the velocity is (next - before) / 2. */
static double energy(const study *s, const double *before, const double *now, const double *next)
{
    eqnn_chain_opts o = { .beads = s->beads };
    double kinetic = 0, mean[3] = { 0 };
    for (int i = 0; i < s->coordinates; i++) mean[i % 3] += (next[i] - before[i]) / 2 / s->beads;
    for (int i = 0; i < s->coordinates; i++) {
        double v = (next[i] - before[i]) / 2 - mean[i % 3];
        kinetic += 0.5 * v * v;
    }
    return kinetic + eqnn_chain_energy(&o, now, NULL);
}

/* After k steps: now holds the predictions of frame t + k for each start t. */
static void note_rollout(predictor *p, int k, int starts, int every, const double *next)
{
    const study *s = p->s;
    double square = 0, change = 0;
    for (int r = 0; r < starts; r++) {
        int t = s->split + r * every, at = r * s->coordinates;
        double truth = energy(s, frame(s, t - 1), frame(s, t), frame(s, t + 1));
        double here = energy(s, s->before + at, s->now + at, next + at);
        change += fabs(here / truth - 1) / starts;
        for (int i = 0; i < s->coordinates; i++) {
            double d = s->now[at + i] - frame(s, t + k)[i];
            square += d * d / s->coordinates / starts;
        }
    }
    p->far[k] = sqrt(square);
    p->energy[k] = change;
    size_t size = (size_t)s->coordinates;
    memcpy(p->run + (size_t)k * size, s->now, size * sizeof(double));
}

/* Ends early, with NaN in what is left, when the beads fly apart. */
static void roll_out(predictor *p)
{
    const study *s = p->s;
    size_t size = (size_t)s->coordinates, all = (size_t)s->rollout + 1;
    int starts = s->batch < 8 ? s->batch : 8, sane = 1;
    int every = (s->last - s->split - s->rollout) / starts;
    double *next = malloc((size_t)starts * size * sizeof *next);
    p->far = malloc(2 * all * sizeof *p->far);
    p->run = malloc(all * size * sizeof *p->run);
    if (!next || !p->far || !p->run) eqnn_fail(s->c, "no memory for the roll-out");
    p->energy = p->far ? p->far + all : NULL;
    for (size_t k = 0; p->far && k < 2 * all; k++) p->far[k] = NAN;
    for (size_t k = 0; p->run && k < all * size; k++) p->run[k] = NAN;
    for (int r = 0; r < starts && !eqnn_error(s->c); r++) {
        int t = s->split + r * every;
        memcpy(s->before + (size_t)r * size, frame(s, t - 1), size * sizeof *next);
        memcpy(s->now + (size_t)r * size, frame(s, t), size * sizeof *next);
    }
    for (int k = 0; k <= s->rollout && sane && !eqnn_error(s->c); k++) {
        p->predict(p, starts, s->before, s->now, next);
        note_rollout(p, k, starts, every, next);
        sane = p->far[k] < 1e3 && !eqnn_interrupted();
        memcpy(s->before, s->now, (size_t)starts * size * sizeof *next);
        memcpy(s->now, next, (size_t)starts * size * sizeof *next);
    }
    free(next);
}

/* ------------------------------------------------------------------------------------------------
   Reports
   ---------------------------------------------------------------------------------------------- */

static int learns(const predictor *p) { return p->net || p->fit; }

/* How many numbers were learned. */
static double size_of(const predictor *p)
{
    return p->c ? (double)eqnn_parameter_size(p->c) : p->fit ? pair_count(p->s) : 0;
}

static void print_summary(eqnn_ctx *c, const predictor *p, int n)
{
    eqnn_table *t = eqnn_table_make(c, "model|parameters|MSE train|MSE test|cm|p1 cm|p7 x|p12 y|"
                                       "equiv. error|relative|s/epoch");
    for (int i = 0; i < n; i++) {
        eqnn_table_cell(t, "%s", p[i].name);
        eqnn_table_cell(t, learns(&p[i]) ? "%.0f" : "-", size_of(&p[i]));
        eqnn_table_cell(t, "%.3e", p[i].train);
        eqnn_table_cell(t, "%.3e", p[i].test);
        for (int k = 0; k < 4; k++) eqnn_table_cell(t, "%.5f", p[i].correlation[k]);
        eqnn_table_cell(t, p[i].c ? "%.1e" : "-", p[i].error);
        eqnn_table_cell(t, p[i].c ? "%.1e" : "-", p[i].relative);
        eqnn_table_cell(t, learns(&p[i]) ? "%.3f" : "-", p[i].seconds);
    }
    eqnn_table_print(t, stdout);
    eqnn_table_free(t);
}

static void write_summary(const study *s, const predictor *p, int n)
{
    eqnn_csv *f = eqnn_csv_open(s->c, eqnn_path_in(s->c, s->out, "summary.csv"),
                                "model,parameters,mse_train,mse_test,corr_cm,corr_p1,"
                                "corr_p7x,corr_p12y,equivariance_error,equivariance_relative,"
                                "seconds_per_epoch", 0);
    for (int i = 0; i < n; i++) {
        eqnn_csv_text(f, p[i].name);
        eqnn_csv_number(f, size_of(&p[i]));
        eqnn_csv_number(f, p[i].train);
        eqnn_csv_number(f, p[i].test);
        for (int k = 0; k < 4; k++) eqnn_csv_number(f, p[i].correlation[k]);
        eqnn_csv_number(f, p[i].c ? p[i].error : NAN); /* not measured: an empty cell */
        eqnn_csv_number(f, p[i].c ? p[i].relative : NAN);
        eqnn_csv_number(f, learns(&p[i]) ? p[i].seconds : NAN);
        eqnn_csv_end(f);
    }
    eqnn_csv_close(f);
}

/* How far after 1, a tenth, and all of the frames; and what became of the energy. */
static void print_rollout(const study *s, const predictor *p, int n)
{
    int tenth = s->rollout > 10 ? s->rollout / 10 : 1;
    char titles[160];
    snprintf(titles, sizeof titles, "roll-out|rms error after 1|after %d|after %d|"
             "energy error after %d|after %d", tenth, s->rollout, tenth, s->rollout);
    eqnn_table *t = eqnn_table_make(s->c, titles);
    for (int i = 0; i < n; i++) {
        eqnn_table_cell(t, "%s", p[i].name);
        eqnn_table_cell(t, "%.2e", p[i].far[1]);
        eqnn_table_cell(t, "%.2e", p[i].far[tenth]);
        eqnn_table_cell(t, "%.2e", p[i].far[s->rollout]);
        eqnn_table_cell(t, "%.1e", p[i].energy[tenth]);
        eqnn_table_cell(t, "%.1e", p[i].energy[s->rollout]);
    }
    printf("\n");
    eqnn_table_print(t, stdout);
    eqnn_table_free(t);
}

static void write_rollout(const study *s, const predictor *p, int n)
{
    eqnn_csv *f = eqnn_csv_open(s->c, eqnn_path_in(s->c, s->out, "rollout.csv"),
                                "model,frame,rms_error,energy_error", 0);
    for (int i = 0; i < n; i++)
        for (int k = 0; k <= s->rollout; k++) {
            const double row[] = { k, p[i].far[k], p[i].energy[k] };
            eqnn_csv_row(f, p[i].name, 3, row);
        }
    eqnn_csv_close(f);
}

static int equivariant(const predictor *p) { return p->net != mlp && p->net != gnn; }

/* The equivariant model with the smallest test error, or the best of any, or NULL. */
static const predictor *best_model(const predictor *p, int n)
{
    const predictor *best = NULL;
    for (int i = 0; i < n; i++) {
        if (!p[i].net) continue;
        int more = best ? equivariant(&p[i]) - equivariant(best) : 1;
        if (more > 0 || (more == 0 && p[i].test < best->test)) best = &p[i];
    }
    return best;
}

static void print_verdict(const predictor *p, int n)
{
    const predictor *best = best_model(p, n), *trivial = &p[0];
    for (int i = 0; i < n; i++)
        if (!learns(&p[i]) && p[i].test < trivial->test) trivial = &p[i];
    if (!best) return;
    printf("\n");
    for (int i = 0; i < n; i++) {
        if (&p[i] != trivial && !p[i].fit) continue;
        double factor = p[i].test / best->test;
        printf("%s %s \"%s\": its test error is %.2f times %s.\n", best->name,
               factor > 1 ? "beats" : "does not beat", p[i].name, factor > 1 ? factor : 1 / factor,
               factor > 1 ? "smaller" : "larger");
    }
}

/* ------------------------------------------------------------------------------------------------
   Pictures
   ---------------------------------------------------------------------------------------------- */

/* Models have the plot's colours; what learns nothing, the i-th predictor, is grey and dashed. */
static eqnn_series_opts style(const predictor *p, int i)
{
    static const char *const grey[] = { "#bbbbbb", "#999999", "#777777", "#444444" };
    if (p[i].net) return (eqnn_series_opts){ 0 };
    return (eqnn_series_opts){ .dashed = 1, .colour = grey[i % 4], .size = 1.4 };
}

static void draw_losses(const study *s, const predictor *p, int n)
{
    eqnn_plot *plot = eqnn_plot_make(s->c, &(eqnn_plot_opts){ .title = "Test error while training",
        .x_label = "epoch", .y_label = "mean squared error", .log_y = 1, .width = 680 });
    const char *log = eqnn_path_in(s->c, s->out, "log.csv"); /* that of a resumed run is whole */
    for (int i = 0; i < n; i++)
        if (p[i].net) eqnn_plot_csv(plot, log, p[i].name, 1, 3, NULL);
    for (int i = 0; i < n; i++) {
        eqnn_series_opts o = style(p, i);
        if (!p[i].net)
            eqnn_plot_add(plot, p[i].name, 2, (double[]){ 1, s->run.epochs },
                          (double[]){ p[i].test, p[i].test }, &o);
    }
    eqnn_plot_save(plot, eqnn_path_in(s->c, s->out, "losses.svg"));
    eqnn_plot_free(plot);
}

/* Predicted against true targets of the test: what correlation there is where it matters. */
static eqnn_plot *correlation_panel(predictor *p)
{
    enum { MOST = 1500 };
    const study *s = p->s;
    static double truth[MOST], guess[MOST];
    int n = 0, samples = s->last - s->split, every = 1 + samples * s->coordinates / MOST;
    double *next = s->next, most = 0;
    for (int t = s->split; t < s->last; t++) {
        take(s, t, t + 1);
        p->predict(p, 1, s->before, s->now, next);
        for (int i = t % every; i < s->coordinates && n < MOST; i += every) {
            if (i % 3 == 2) continue;
            double from = base(s, s->before[i], s->now[i]);
            truth[n] = frame(s, t + 1)[i] - from;
            guess[n] = next[i] - from;
            most = fmax(most, fabs(truth[n++]));
        }
    }
    eqnn_plot *plot = eqnn_plot_make(s->c, &(eqnn_plot_opts){ .title = p->name, .equal = 1,
        .width = 400, .x_label = "true target", .y_label = "predicted", .x_min = -most,
        .x_max = most, .y_min = -most, .y_max = most });
    eqnn_plot_add(plot, NULL, 2, (double[]){ -most, most }, (double[]){ -most, most },
                  &(eqnn_series_opts){ .colour = "#999999", .dashed = 1, .size = 1.2 });
    eqnn_plot_add(plot, NULL, n, truth, guess, &(eqnn_series_opts){ .points = 1, .opacity = 0.45 });
    return plot;
}

enum { MOST_PREDICTORS = 24 };

static void draw_correlations(const study *s, predictor *p, int n)
{
    eqnn_plot *panels[MOST_PREDICTORS] = { 0 };
    int count = 0;
    for (int i = 0; i < n; i++)
        if (p[i].net) panels[count++] = correlation_panel(&p[i]);
    if (count)
        eqnn_plots_save(s->c, eqnn_path_in(s->c, s->out, "correlations.svg"), panels, count, 3);
    for (int i = 0; i < count; i++) eqnn_plot_free(panels[i]);
}

static void draw_rollouts(const study *s, const predictor *p, int n)
{
    const predictor *best = best_model(p, n);
    double *time = malloc(((size_t)s->rollout + 1) * sizeof *time);
    eqnn_plot *both[2] = {
        eqnn_plot_make(s->c, &(eqnn_plot_opts){ .title = "Distance from the truth", .log_y = 1,
                       .x_label = "frames fed back", .y_label = "rms error" }),
        eqnn_plot_make(s->c, &(eqnn_plot_opts){ .title = "Change of energy", .log_y = 1,
                       .y_min = 1e-3, .y_max = 1e2, .x_label = "frames fed back",
                       .y_label = "relative error" }) };
    for (int k = 0; time && k <= s->rollout; k++) time[k] = k;
    for (int k = 0; time && k < 2 * n; k++) { /* models first: the same colours as in losses.svg */
        int i = k % n;
        eqnn_series_opts o = style(p, i);
        if (!p[i].net != (k >= n)) continue;
        eqnn_plot_add(both[0], p[i].name, s->rollout + 1, time, p[i].far, &o);
        eqnn_plot_add(both[1], NULL, s->rollout + 1, time, p[i].energy, &o);
    }
    eqnn_plots_save(s->c, eqnn_path_in(s->c, s->out, "rollout.svg"), both, 2, 2);
    if (best)
        eqnn_plot_trajectories(s->c, eqnn_path_in(s->c, s->out, "trajectories.svg"), s->rollout + 1,
                               s->beads, frame(s, s->split), best->run, "true", best->name);
    eqnn_plot_free(both[0]);
    eqnn_plot_free(both[1]);
    free(time);
}

/* ------------------------------------------------------------------------------------------------
   The program
   ---------------------------------------------------------------------------------------------- */

static const eqnn_option options[] = {
    { "models", "mlp,small,large,potential",
      "which to train: all, or some of mlp, gnn, small, large, 2106,\n"
      "                     attention, multi-head, attention-network, potential" },
    { "history", "2", "frames a model sees: 1 or 2 (then it is given the last displacement)" },
    { "target", "dx", "what it predicts: dx (change) or x (position)" },
    { "bonds", "", "tell the models who is bonded: on or off; default on with --history 2" },
    { "frames", "2048", "of the generated chain (without --data)" },
    { "data", "", "npz file with arr [frames, beads, 2 or 3] instead" },
    { "epochs", "30", "passes over the training data" },
    { "batch", "32", "frames in a step" },
    { "shuffle", "on", "random order of the training frames" },
    { "schedule", "cosine", "of the rate: cosine or constant" },
    { "huber", "", "errors beyond so many times the root mean square of the targets count\n"
      "                     linearly, 0: none do; default 0.1, with --history 1 none" },
    { "decay", "", "of weights in Adam (AdamW); default none" },
    { "rate", "", "of Adam; default (also below) the model's own" },
    { "hidden", "", "irreps of hidden features" },
    { "layers", "", "of large, 2106 and attention-network" },
    { "heads", "", "of multi-head, attention-network and gnn" },
    { "lmax", "", "degree of the harmonics" },
    { "radius", "", "beads closer than this are neighbours" },
    { "basis", "", "number of radial functions" },
    { "rollout", "100", "frames to feed back at the end" },
    { "out", "build/trajectory", "folder for tables, pictures and models; empty: none" },
    { NULL, NULL, NULL }
};

/* What --resume needs to be told as before. */
static const char repeated[] =
    "history,target,bonds,frames,batch,shuffle,schedule,huber,decay,rate,radius,seed";

/* An option without a default of its own: 0 when it was not given. */
static int int_or_none(eqnn_args *a, const char *name, int low, int high)
{
    return *eqnn_args_text(a, name) ? eqnn_args_int(a, name, low, high) : 0;
}

static double positive_or(eqnn_args *a, const char *name, double otherwise)
{
    double value = *eqnn_args_text(a, name) ? eqnn_args_number(a, name) : otherwise;
    if (value < 0) eqnn_args_fail(a, "option --%s: %g is negative", name, value);
    return value;
}

static settings asked_for(eqnn_args *a)
{
    return (settings){ .hidden = eqnn_args_text(a, "hidden"),
                       .layers = int_or_none(a, "layers", 1, 100),
                       .heads = int_or_none(a, "heads", 1, 1000),
                       .lmax = int_or_none(a, "lmax", 1, 20),
                       .basis = int_or_none(a, "basis", 1, 1000),
                       .radius = positive_or(a, "radius", 0),
                       .rate = positive_or(a, "rate", 0) };
}

static void understand(study *s, eqnn_args *a)
{
    s->history = eqnn_args_int(a, "history", 1, 2);
    s->asked = asked_for(a);
    s->huber = positive_or(a, "huber", s->history == 2 ? 0.1 : 0);
    s->decay = positive_or(a, "decay", 0);
    s->to_position = eqnn_args_choice(a, "target", "dx,x");
    s->bonds = s->history == 2;
    if (*eqnn_args_text(a, "bonds")) s->bonds = eqnn_args_choice(a, "bonds", "off,on");
    s->constant_rate = eqnn_args_choice(a, "schedule", "cosine,constant");
    s->frames = eqnn_args_int(a, "frames", 10, 1000000);
    s->batch = eqnn_args_int(a, "batch", 1, 4096);
    s->rollout = eqnn_args_int(a, "rollout", 0, 100000);
    s->shuffle = eqnn_args_on(a, "shuffle");
    s->run = eqnn_args_run(a, repeated);
    s->models = eqnn_args_text(a, "models");
    s->data = eqnn_args_text(a, "data");
    s->out = eqnn_args_text(a, "out");
    s->context = eqnn_args_context(a);
}

/* The models and their settings with --history 1, the study's, and with 2: fine forces need a fine
   radial basis and few neighbours. hidden, layers, heads, lmax, basis, radius, rate. */
#define STUDY "8x0e+8x0o+16x1e+16x1o+8x2e+8x2o"
#define FINE "16x0e+8x1o+8x2e"
#define PAIRS "16x0e+16x1o"

static const struct { const char *name; network net; settings set[2]; } known[] = {
    { "mlp", mlp, { { "", 0, 0, 0, 0, 3.5, 1e-3 }, { "", 0, 0, 0, 0, 1.2, 1e-2 } } },
    { "gnn", gnn, { { "", 0, 4, 3, 0, 2.5, 1e-3 }, { "", 0, 4, 3, 0, 1.2, 1e-3 } } },
    { "small", small, { { STUDY, 0, 0, 3, 0, 3.5, 1e-3 }, { STUDY, 0, 0, 3, 0, 0.8, 1e-2 } } },
    { "large", large, { { STUDY, 3, 0, 3, 10, 3.5, 1e-3 }, { FINE, 2, 0, 3, 20, 0.8, 1e-2 } } },
    { "2106", of_2106, { { STUDY, 3, 0, 3, 10, 3.5, 1e-3 }, { FINE, 2, 0, 3, 20, 0.8, 1e-2 } } },
    { "attention", attention,
      { { STUDY, 1, 1, 4, 20, 3.5, 1e-3 }, { FINE, 1, 1, 2, 20, 0.8, 1e-2 } } },
    { "multi-head", multi_head,
      { { STUDY, 1, 16, 4, 20, 3.5, 1e-3 }, { FINE, 1, 4, 2, 20, 0.8, 1e-2 } } },
    { "attention-network", attention_network,
      { { STUDY, 4, 8, 4, 20, 3.5, 1e-3 }, { FINE, 2, 4, 2, 20, 0.8, 1e-2 } } },
    { "potential", potential,
      { { PAIRS, 0, 0, 1, 20, 3.5, 1e-3 }, { PAIRS, 0, 0, 1, 20, 1.2, 1e-2 } } },
};
enum { KNOWN = sizeof known / sizeof *known };

static settings chosen(settings own, const settings *asked)
{
    if (*asked->hidden) own.hidden = asked->hidden;
    if (asked->layers) own.layers = asked->layers;
    if (asked->heads) own.heads = asked->heads;
    if (asked->lmax) own.lmax = asked->lmax;
    if (asked->basis) own.basis = asked->basis;
    if (asked->radius > 0) own.radius = asked->radius;
    if (asked->rate > 0) own.rate = asked->rate;
    return own;
}

static predictor model_at(const study *s, int k)
{
    settings set = chosen(known[k].set[s->history - 1], &s->asked);
    return (predictor){ .name = known[k].name, .predict = by_network, .net = known[k].net,
                        .set = set, .c = eqnn_make(&s->context) };
}

/* Those that learn nothing, the linear fit, then the models asked for; returns how many. */
static int list_predictors(study *s, predictor *p)
{
    int n = 3;
    if (*s->asked.hidden) eqnn_irreps_make(s->c, s->asked.hidden); /* wrong ones train nothing */
    p[0] = (predictor){ .name = "no motion", .predict = no_motion };
    p[1] = (predictor){ .name = "mean drift", .predict = mean_drift };
    p[2] = (predictor){ .name = "repeat last displacement", .predict = repeat_last };
    if (s->history == 2 && !s->to_position)
        p[n++] = (predictor){ .name = "linear pair forces", .predict = by_pairs, .fit = fit_pairs };
    for (const char *word = s->models; *word && !eqnn_error(s->c);) {
        size_t length = strcspn(word, ",");
        int all = length == 3 && !strncmp(word, "all", 3), before = n;
        for (int k = 0; k < KNOWN && n < MOST_PREDICTORS; k++)
            if (all || (strlen(known[k].name) == length && !strncmp(known[k].name, word, length)))
                p[n++] = model_at(s, k);
        if (n == before)
            eqnn_fail(s->c, "--models %s: choose from all, mlp, gnn, small, large, "
                      "2106, attention, multi-head, attention-network and potential", s->models);
        word += length + (word[length] == ',');
    }
    for (int i = 0; i < n; i++) p[i].s = s;
    return n;
}

/* Trains (a model) and scores one predictor. 0 on an error, or when Ctrl-C came. */
static int study_one(predictor *p, eqnn_csv *log)
{
    const study *s = p->s;
    if (p->net && !p->c) eqnn_fail(s->c, "no memory for a context");
    if (p->c && !eqnn_error(s->c)) train(p, log);
    if (p->fit) p->fit(p);
    if (eqnn_interrupted()) return 0;
    p->train = evaluate(p, s->first, s->split, NULL);
    p->test = evaluate(p, s->split, s->last, p->correlation);
    if (p->c) check_symmetry(p);
    if (s->rollout) roll_out(p);
    if (p->c && eqnn_error(p->c)) eqnn_fail(s->c, "%s: %s", p->name, eqnn_error(p->c));
    return !eqnn_error(s->c);
}

static void report(study *s, predictor *p, int n)
{
    print_summary(s->c, p, n);
    if (s->rollout) print_rollout(s, p, n);
    print_verdict(p, n);
    if (!*s->out) return;
    write_summary(s, p, n);
    draw_losses(s, p, n);
    draw_correlations(s, p, n);
    if (s->rollout) write_rollout(s, p, n);
    if (s->rollout) draw_rollouts(s, p, n);
    if (!eqnn_error(s->c)) printf("Tables, pictures and models are in %s.\n", s->out);
}

static void run(study *s)
{
    predictor p[MOST_PREDICTORS];
    eqnn_csv *log = NULL;
    int done = 0, n = 0;
    if (prepare(s)) n = list_predictors(s, p);
    if (s->split - s->first < 1 || s->last - s->split < s->rollout + 8)
        eqnn_fail(s->c, "%d frames are too few: %d for the test, --rollout %d needs %d", s->frames,
                  s->last - s->split, s->rollout, s->rollout + 8);
    if (*s->out && !eqnn_error(s->c) && eqnn_make_folder(s->c, s->out))
        log = eqnn_csv_open(s->c, eqnn_path_in(s->c, s->out, "log.csv"),
                            "model,epoch,mse_train,mse_test,seconds_per_epoch", s->run.resume);
    if (!eqnn_error(s->c))
        printf("%d frames of %d beads; %d samples for training, %d for the test\n", s->frames,
               s->beads, s->split - s->first, s->last - s->split);
    int begins = *s->out && !s->run.resume && !eqnn_error(s->c);
    for (int i = 0; i < n && begins; i++) /* what an earlier run left there */
        if (p[i].net) eqnn_run_forget(model_path(&p[i]));
    while (done < n && !eqnn_error(s->c) && study_one(&p[done], log)) done++;
    eqnn_csv_close(log);
    if (done == n && n > 0) report(s, p, n);
    else if (eqnn_interrupted() && !eqnn_error(s->c))
        printf("Interrupted%s.\n", *s->out ? "; the same command with --resume continues" : "");
    for (int i = 0; i < n; i++) {
        eqnn_free(p[i].c);
        free(p[i].far);
        free(p[i].run);
        free(p[i].pair);
    }
}

int main(int argc, char **argv)
{
    study s = { 0 };
    eqnn_args a;
    int go = eqnn_args_read(&a, argc, argv, "Learns how a chain of beads moves.", options);
    if (go > 0) understand(&s, &a);
    if ((s.c = eqnn_program_start(&a, &s.context)) != NULL) run(&s);
    release(&s);
    return eqnn_program_end(&a, s.c);
}
