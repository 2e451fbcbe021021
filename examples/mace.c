/* mace.c - MACE made of the library's parts: a model that mace-torch trained, without Python

   MACE (Batatia, Kovacs, Simm, Ortner and Csanyi 2022, arXiv:2206.07697) is a network of few
   layers whose messages are products of many neighbours' features: from the sum over neighbours
   A, that is one-body, come A x A and A x A x A at hardly any cost, and with them angles and more.

   You will see energies, forces and virials of configurations beside those that mace-torch found
   for them: 1e-14 apart in double, 1e-6 in float. Without a model a network of random weights
   shows how well its forces turn with a molecule. It teaches how a published network is put
   together of parts whose weights have its names; how weights are taken that are counted
   differently; and that forces and virial are two slopes of one number.

   --data is a model, --atoms an extended xyz file: energies and forces of its frames are printed.
   With --serve the atoms of its first frame are moved by ASE, i-PI and others (see ipi.h). A model
   is the state_dict of a ScaleShiftMACE of RealAgnosticResidualInteractionBlocks (the first may be
   without Residual), as a file of safetensors that also says what it does not tell:

      import mace.calculators, safetensors.torch, torch
      m = torch.load("MACE.model", map_location="cpu", weights_only=False).double()
      i, p = m.interactions[0], m.products[0]
      factors = len(p.symmetric_contractions.contractions[0].weights) + 1
      sizes = [m.spherical_harmonics._lmax, factors,
               int(m.num_interactions), len(m.radial_embedding.bessel_fn.bessel_weights),
               int(m.radial_embedding.cutoff_fn.p), int("Residual" in type(i).__name__),
               float(i.avg_num_neighbors), float(m.r_max),
               float(m.scale_shift.scale), float(m.scale_shift.shift)]
      safetensors.torch.save_file(
          {k: v.contiguous() for k, v in m.state_dict().items() if v.numel()}, "MACE.safetensors",
          {"sizes": " ".join(map(repr, sizes)), "hidden": str(p.linear.irreps_out),
           "mlp": str(m.readouts[-1].hidden_irreps)})

   What mace-torch has besides (repulsion at short distances, other transforms of distances, several
   heads, interactions scaled by density) is not here.

      cc -O2 -fopenmp -DEQNN_DOUBLE -I. examples/mace.c -lm -o mace
      ./mace --data MACE.safetensors --atoms start.xyz --serve unix:mace

   "make test" runs it with
      --data tests/mace.safetensors */

#define _DEFAULT_SOURCE 1 /* sockets, which -std=c99 hides */
#define EQNN_IMPLEMENTATION
#include "eqnn_data.h"
#include "ipi.h"

enum { ELEMENTS = 118 }; /* at most */

typedef struct mace {
    eqnn_ctx *c;
    eqnn_file *file;
    const char *hidden, *mlp;      /* irreps of a layer; scalars within the last readout      */
    int lmax, correlation, layers; /* degree of the harmonics; factors of a product           */
    int bessel, cutoff, residual;  /* radial functions; their cutoff; the first layer skips   */
    double neighbours, radius;     /* sums over neighbours are divided by so many; angstrom   */
    double scale, shift;           /* of an atom's energy, to which the lone atom's is added  */
    int elements;
    double charge[ELEMENTS], lone[ELEMENTS]; /* of each: the nucleus; the energy of the atom  */
    int *kind, atoms;              /* of the frame that moves: which element                  */
} mace;

/* ------------------------------------------------------------------------------------------------
   The network
   ---------------------------------------------------------------------------------------------- */

/* What a node i hears of its neighbours j (eqs. 8 and 9), all degrees up to that of Y:

       A_i = linear(sum over j of R(r_ij) Y(r_ij) (x) linear_up(x_j)) / neighbours

   R is a number for each path of the product, made of the radial functions b by a network. Its
   last layer is left to eqnn_message, which so stores nothing for an edge and path. */
static eqnn_tensor *interaction(const mace *m, eqnn_tensor *x, eqnn_tensor *Y, eqnn_tensor *b,
                                const eqnn_graph *g, const eqnn_irreps *A)
{
    if (!x || !Y) return NULL;
    eqnn_ctx *c = eqnn_context(x);
    const eqnn_product *p = eqnn_product_channelwise(c, eqnn_label_of(x), eqnn_label_of(Y), A,
                                                     &(eqnn_product_opts){ .by_output = 1 });
    x = eqnn_irreps_linear(x, "linear_up", eqnn_label_of(x)->name, NULL);
    eqnn_tensor *h = eqnn_fc(b, "conv_tp_weights", "64,64,64", &(eqnn_fc_opts){ .out_act = 1 });
    eqnn_tensor *V = eqnn_param(c, "conv_tp_weights.layer3.weight", 64,
                                p ? eqnn_product_weights(p) : 0, NULL);
    x = eqnn_message(x, Y, h, eqnn_scale(V, 1 / sqrt(64)), p, g);
    return eqnn_scale(eqnn_irreps_linear(x, "linear", A->name, NULL), 1 / m->neighbours);
}

/* The radial functions, Bessel's times a cutoff (eq. 7); where edges come in pairs, once a pair. */
static eqnn_tensor *radial(const mace *m, eqnn_tensor *r, const eqnn_graph *g)
{
    eqnn_radial_opts bessel = { .basis = EQNN_BESSEL, .unscaled = 1 };
    if (g && g->pairs) r = eqnn_take(r, g->pair_edge_index);
    r = eqnn_norm(r);
    return eqnn_mul(eqnn_radial_basis(r, m->bessel, m->radius, &bessel),
                    eqnn_map(eqnn_scale(r, 1 / m->radius), EQNN_POLY_CUTOFF, m->cutoff, 0));
}

/* One layer's energies of the atoms (eq. 13); the last readout is not linear. */
static eqnn_tensor *readout(const mace *m, eqnn_tensor *x, int layer)
{
    int last = layer == m->layers - 1;
    const eqnn_act silu = EQNN_SILU;
    if (!x) return NULL;
    x = eqnn_enter(x, eqnn_format(eqnn_context(x), "readouts.%d", layer));
    if (last) x = eqnn_activation(eqnn_irreps_linear(x, "linear_1", m->mlp, NULL), &silu, 0);
    return eqnn_leave(eqnn_irreps_linear(x, last ? "linear_2" : "linear", "0e", NULL));
}

/* The energy [1,1] less that of lone atoms. */
static eqnn_tensor *energy(const mace *m, eqnn_ints *element, eqnn_tensor *pos, const eqnn_graph *g)
{
    eqnn_ctx *c = eqnn_context(pos);
    const eqnn_irreps *hidden = pos ? eqnn_irreps_make(c, m->hidden) : NULL;
    if (!hidden || !hidden->blocks) return NULL;
    const eqnn_irreps *A_irreps = eqnn_irreps_uniform(c, hidden->block[0].copies, m->lmax);
    const char *scalars = eqnn_format(c, "%dx0e", hidden->block[0].copies);
    eqnn_contraction_opts many = { .correlation = m->correlation, .species = element };
    eqnn_tensor *kind = eqnn_put(eqnn_full(c, eqnn_rows(pos), 1, 1), element, m->elements);
    eqnn_tensor *r = eqnn_neg(eqnn_edge_vectors(pos, g)); /* theirs lead from source to target */
    eqnn_tensor *Y = eqnn_spherical_harmonics(r, m->lmax, &(eqnn_harmonics_opts){ .normalize = 1 });
    eqnn_tensor *b = radial(m, r, g), *sum = NULL;
    eqnn_tensor *x = eqnn_irreps_linear(kind, "node_embedding.linear", scalars, NULL);
    for (int t = 0; t < m->layers; t++) {
        const char *out = t == m->layers - 1 ? scalars : m->hidden;
        eqnn_tensor *skip = NULL;
        x = eqnn_enter(x, eqnn_format(c, "interactions.%d", t));
        eqnn_tensor *A = interaction(m, x, Y, b, g, A_irreps);
        if (t || m->residual) skip = eqnn_fully_connected(x, kind, "skip_tp", out, NULL);
        else A = eqnn_fully_connected(A, kind, "skip_tp", A_irreps->name, NULL);

        x = eqnn_enter(eqnn_leave(A), eqnn_format(c, "products.%d", t)); /* eqs. 10 and 11 */
        x = eqnn_symmetric_contraction(x, "symmetric_contractions", out, &many);
        x = eqnn_leave(eqnn_irreps_linear(x, "linear", out, NULL));
        if (skip) x = eqnn_add(x, skip);
        eqnn_tensor *e = readout(m, x, t);
        sum = sum ? eqnn_add(sum, e) : e;
    }
    return eqnn_sum(eqnn_shift(eqnn_scale(eqnn_as(sum, NULL), m->scale), m->shift));
}

/* What comes out: the energy; forces [atoms,3]; the virial -dE/dstrain [3,3]. */
typedef struct outcome { double E; eqnn_tensor *F, *W; int edges; } outcome;

static outcome field(const mace *m, const int *kind, int atoms, eqnn_tensor *pos,
                     const double *cell)
{
    outcome o = { 0, NULL, NULL, 0 };
    const eqnn_graph *g = eqnn_radius_graph(pos, m->radius, &(eqnn_graph_opts){ .cell = cell });
    eqnn_tensor *r = eqnn_as(eqnn_edge_vectors(pos, g), NULL), *by[2] = { pos, r };
    eqnn_ints *element = eqnn_ints_make(m->c, atoms, kind, m->elements, 0);
    eqnn_recording(m->c, 1);
    eqnn_tensor *E = energy(m, element, pos, eqnn_graph_vectors(g, r)), *slope[2] = { NULL, NULL };
    eqnn_recording(m->c, 0);
    eqnn_grads(E, by, 2, slope);
    eqnn_recording(m->c, 1);
    o.F = eqnn_neg(slope[0]);
    o.W = eqnn_neg(eqnn_matmul_t(r, slope[1], 1, 0));
    o.E = eqnn_value(E);
    o.edges = g ? g->edges : 0;
    for (int a = 0; a < atoms && !eqnn_error(m->c); a++) o.E += m->lone[kind[a]];
    return o;
}

/* ------------------------------------------------------------------------------------------------
   The model
   ---------------------------------------------------------------------------------------------- */

/* An entry's numbers, rows x cols; rows 0: as many as there are. */
static eqnn_tensor *entry(const mace *m, const char *name, int rows, int cols)
{
    const eqnn_entry *e = eqnn_file_find(m->file, name);
    if (e && !rows && cols > 0) rows = (int)(e->count / (size_t)cols);
    if (!e || e->count != (size_t)rows * (size_t)cols)
        return eqnn_fail(m->c, "%s: not in the file, or not [%d,%d]", name, rows, cols);
    double *v = malloc((e->count + 1) * sizeof *v);
    eqnn_tensor *x = NULL;
    if (!v) eqnn_fail(m->c, "no memory for %s", name);
    else if (eqnn_file_read(m->file, e, v)) x = eqnn_from_double(m->c, rows, cols, v);
    free(v);
    return x;
}

/* The same, copied: at most so many numbers. Returns how many. */
static int numbers(const mace *m, const char *name, int most, double *out)
{
    eqnn_tensor *x = entry(m, name, 0, 1);
    int n = eqnn_rows(x);
    if (n > most) eqnn_fail(m->c, "%s: %d numbers, at most %d", name, n, most);
    for (int k = 0; k < n && n <= most; k++) out[k] = eqnn_at(x, k, 0);
    return eqnn_error(m->c) ? 0 : n;
}

static void read_sizes(mace *m)
{
    const char *text = eqnn_file_meta(m->file, "sizes");
    int n = !text ? 0 : sscanf(text, "%d%d%d%d%d%d%lf%lf%lf%lf", &m->lmax, &m->correlation,
                               &m->layers, &m->bessel, &m->cutoff, &m->residual, &m->neighbours,
                               &m->radius, &m->scale, &m->shift);
    m->hidden = eqnn_file_meta(m->file, "hidden");
    m->mlp = eqnn_file_meta(m->file, "mlp");
    if (n != 10 || !m->hidden || !m->mlp || m->layers < 1 || m->correlation < 1)
        eqnn_fail(m->c, "the file lacks \"sizes\", \"hidden\" or \"mlp\"; see the program's head");
    m->elements = numbers(m, "atomic_numbers", ELEMENTS, m->charge);
    numbers(m, "atomic_energies_fn.atomic_energies", m->elements, m->lone);
}

/* The weights of a contraction, [species, P paths x C channels], from mace's w [species, K, C]. Its
   U, kept in the file as [2l+1][i][j]..[K], are all couplings of nu factors to degree l; ours are
   orthonormal rows Q_p [2l+1][i][j].. for those that are symmetric in the factors, which are fewer.
   As x x .. is symmetric and symmetric couplings are sums of the Q_p,

       sum_k w_k U_k x x .. = sum_p w'_p Q_p x x ..  with  w'_p = sum_k M_pk w_k,  M_pk = Q_p U_k,

   summed over i, j, .. for one of the 2l+1 components: by Schur's lemma each gives the same M. */
static eqnn_tensor *contraction(const mace *m, const char *name)
{
    static const char *const formula[] = { "", "i", "ij=ji", "ijk=jik=ikj", "ijkl=jikl=ikjl=ijlk" };
    eqnn_ctx *c = m->c;
    const char *at = strstr(name, ".weights"); /* "_max": correlation factors, ".0": one less, .. */
    int block = at[-1] - '0', nu = m->correlation - (at[8] == '_' ? 0 : 1 + atoi(at + 9));
    const eqnn_irreps *leaf = eqnn_irreps_spherical(c, m->lmax);
    const eqnn_irreps *hidden = eqnn_irreps_make(c, m->hidden);
    if (!leaf || !hidden || nu < 1 || nu > 4 || block < 0 || block >= hidden->blocks)
        return eqnn_fail(c, "%s: no contraction of this network, or of more than 4 factors", name);
    const eqnn_type *L = hidden->block[block].type;
    const eqnn_reduced *rows = eqnn_reduced_make(
        c, formula[nu], leaf->name, &(eqnn_reduced_opts){ .out = eqnn_irreps_make(c, L->name) });
    if (!rows) return NULL;
    int P = eqnn_reduced_out(rows)->copies, F = 1;
    for (int i = 0; i < nu; i++) F *= leaf->cols;
    double *basis = malloc((size_t)(P * L->dim + 1) * (size_t)F * sizeof *basis);
    eqnn_tensor *w = entry(m, name, 0, hidden->block[0].copies), *part[ELEMENTS], *Q = NULL;
    int K = eqnn_rows(w) / m->elements;
    if (basis && eqnn_reduced_basis(rows, basis)) Q = eqnn_from_double(c, P, F, basis);
    free(basis);
    const char *U_name = eqnn_format(c, "%.*s.U_matrix_%d", (int)(at - name), name, nu);
    eqnn_tensor *U = eqnn_slice_rows(entry(m, U_name, L->dim * F, K), 0, F);
    eqnn_tensor *M = eqnn_matmul(Q, U);
    for (int s = 0; s < m->elements; s++) part[s] = eqnn_matmul(M, eqnn_slice_rows(w, s * K, K));
    return eqnn_stack(part, m->elements);
}

/* All parameters, which a first call has made, from the entries of their names. */
static void read_weights(const mace *m)
{
    for (int i = 0; i < eqnn_parameter_count(m->c) && !eqnn_error(m->c); i++) {
        eqnn_tensor *w = eqnn_parameter_at(m->c, i);
        const char *name = eqnn_parameter_name(m->c, i);
        int n = eqnn_rows(w) * eqnn_cols(w);
        eqnn_tensor *from = strstr(name, ".contractions.") ? contraction(m, name)
                                                           : entry(m, name, n, 1);
        double *v = malloc(((size_t)n + 1) * sizeof *v);
        from = eqnn_reshape(from, n, 1);
        for (int k = 0; from && v && k < n; k++) v[k] = eqnn_at(from, k, 0);
        if (!v) eqnn_fail(m->c, "no memory for %s", name);
        else if (from) eqnn_set(w, v);
        free(v);
    }
    eqnn_reset(m->c);
}

/* ------------------------------------------------------------------------------------------------
   What it is asked
   ---------------------------------------------------------------------------------------------- */

static eqnn_tensor *forces_of_seven(eqnn_tensor *const *x, int n, void *user)
{
    const mace *m = user;
    int kind[7];
    (void)n;
    for (int i = 0; i < 7; i++) kind[i] = i % m->elements;
    return eqnn_as(field(m, kind, 7, x[0], NULL).F, eqnn_label_of(x[0]));
}

static double largest(eqnn_tensor *x, eqnn_tensor *want)
{
    eqnn_tensor *d = eqnn_abs(eqnn_sub(eqnn_as(x, NULL), want));
    return eqnn_rows(x) ? eqnn_value(eqnn_max_cols(eqnn_max_rows(d))) : 0;
}

/* Configuration i that the file may have, with what mace-torch found: the largest difference. */
static double compare(const mace *m, int i)
{
    enum { MOST = 10000 };
    static double species[MOST];
    static int kind[MOST];
    double cell[9], E = NAN;
    int n = numbers(m, eqnn_format(m->c, "test.%d.species", i), MOST, species);
    for (int a = 0; a < n; a++) kind[a] = (int)species[a];
    numbers(m, eqnn_format(m->c, "test.%d.energy", i), 1, &E);
    numbers(m, eqnn_format(m->c, "test.%d.cell", i), 9, cell);
    eqnn_tensor *pos = entry(m, eqnn_format(m->c, "test.%d.positions", i), n, 3);
    outcome o = field(m, kind, n, pos, cell);
    double dE = fabs(o.E - E) / fmax(1, fabs(E)); /* of which lone atoms are the most */
    double dF = largest(o.F, entry(m, eqnn_format(m->c, "test.%d.forces", i), n, 3));
    double dW = largest(o.W, entry(m, eqnn_format(m->c, "test.%d.virials", i), 3, 3));
    printf("%3d atoms, %5d edges   E %16.9f   differences: E %.1e, relative; F %.1e   W %.1e\n", n,
           o.edges, o.E, dE, dF, dW);
    eqnn_reset(m->c);
    return fmax(dE, fmax(dF, dW));
}

/* The atoms of frame i as the model's elements. */
static void name_atoms(mace *m, const eqnn_frames *f, int i)
{
    m->atoms = f->first[i + 1] - f->first[i];
    m->kind = realloc(m->kind, ((size_t)m->atoms + 1) * sizeof *m->kind);
    if (!m->kind) eqnn_fail(m->c, "no memory for %d atoms", m->atoms);
    for (int a = 0; a < m->atoms && !eqnn_error(m->c); a++) {
        int charge = f->charge[f->first[i] + a], k = 0;
        while (k < m->elements && (int)m->charge[k] != charge) k++;
        if (k == m->elements) eqnn_fail(m->c, "the model knows no element %d", charge);
        m->kind[a] = k;
    }
}

static void print_frames(mace *m, const eqnn_frames *f)
{
    for (int i = 0; i < f->count && !eqnn_error(m->c); i++) {
        name_atoms(m, f, i);
        if (eqnn_error(m->c)) return;
        const double *x = f->pos + 3 * (size_t)f->first[i];
        eqnn_tensor *pos = eqnn_from_double(m->c, m->atoms, 3, x);
        outcome o = field(m, m->kind, m->atoms, pos, f->cell + 9 * (size_t)i);
        printf("frame %d: %d atoms, %.6f eV\n", i, m->atoms, o.E);
        eqnn_print(o.F, "forces, eV/A", stdout);
        eqnn_reset(m->c);
    }
}

/* A frame of another code's (ipi.h). */
static void answer(eqnn_ctx *c, ipi_frame *f, void *user)
{
    const mace *m = user;
    if (f->atoms != m->atoms) {
        eqnn_fail(c, "a frame of %d atoms; --atoms has %d", f->atoms, m->atoms);
        return;
    }
    outcome o = field(m, m->kind, m->atoms, eqnn_from_double(c, m->atoms, 3, f->x), f->cell);
    f->energy = o.E;
    for (int k = 0; o.F && k < 3 * m->atoms; k++) f->force[k] = eqnn_at(o.F, k / 3, k % 3);
    for (int k = 0; o.W && k < 9; k++) f->virial[k] = eqnn_at(o.W, k / 3, k % 3);
    eqnn_reset(c);
}

static int run(mace *m, const char *atoms, const char *serve)
{
    const double limit = sizeof(eqnn_real) == 8 ? 1e-10 : 1e-4;
    eqnn_tensor *pos = eqnn_scale(eqnn_normal(m->c, "pos", 7, 3), 1.5);
    pos = eqnn_as(pos, eqnn_irreps_make(m->c, "1x1o"));
    double worst = eqnn_check_equivariance(forces_of_seven, &pos, 1, m, 5, NULL);
    printf("%s, %zu weights; forces turn with a molecule to %.1e\n", m->hidden,
           eqnn_parameter_size(m->c), worst);
    if (m->file && !eqnn_error(m->c)) read_weights(m);
    for (int i = 0; m->file && !eqnn_error(m->c); i++) {
        if (!eqnn_file_find(m->file, eqnn_format(m->c, "test.%d.species", i))) break;
        worst = fmax(worst, compare(m, i));
    }
    eqnn_frames *f = *atoms && !eqnn_error(m->c) ? eqnn_frames_open(m->c, atoms) : NULL;
    if (f && *serve) name_atoms(m, f, 0);
    else if (f) print_frames(m, f);
    eqnn_frames_free(f);
    if (*serve && !eqnn_error(m->c)) ipi_serve(m->c, serve, answer, m);
    return worst < limit;
}

static const eqnn_option options[] = {
    { "atoms", "", "extended xyz: energies and forces of its frames, or whose atoms --serve has" },
    { "serve", "", "forces for ASE, i-PI, .. that listen at HOST:PORT or unix:NAME" },
    { "epochs", NULL, NULL }, /* nothing is trained here */
    { "resume", NULL, NULL },
    { "out", NULL, NULL },
    { NULL, NULL, NULL }
};

int main(int argc, char **argv)
{
    mace m = { .hidden = "16x0e+16x1o", .mlp = "16x0e", .lmax = 3, .correlation = 3, .layers = 2,
               .bessel = 8, .cutoff = 5, .residual = 1, .neighbours = 6, .radius = 4, .scale = 1,
               .elements = 3 };
    eqnn_args a;
    eqnn_args_read(&a, argc, argv, "Computes what a model of mace-torch does.", options);
    eqnn_opts o = eqnn_args_context(&a);
    const char *data = eqnn_args_text(&a, "data"), *atoms = eqnn_args_text(&a, "atoms");
    const char *serve = eqnn_args_text(&a, "serve");
    if ((*serve || *atoms) && !*data)
        eqnn_args_fail(&a, "--atoms and --serve need a model, --data");
    if (*serve && !*atoms) eqnn_args_fail(&a, "--serve needs --atoms, which says what they are");
    m.c = eqnn_program_start(&a, &o);
    if (m.c && *data && (m.file = eqnn_file_open(m.c, data)) != NULL) read_sizes(&m);
    int good = m.c && !eqnn_error(m.c) && run(&m, atoms, serve);
    eqnn_file_close(m.file);
    free(m.kind);
    return eqnn_program_end(&a, m.c) || (m.c && !good);
}
