/* mace.c - MACE made of the library's parts: a model that mace-torch trained, without Python

   MACE (Batatia, Kovacs, Simm, Ortner and Csanyi 2022, arXiv:2206.07697) is a network of few
   layers whose messages are products of many neighbours' features: from the sum over neighbours
   A, that is one-body, come A x A and A x A x A at hardly any cost, and with them angles and more.

   You will see energies, forces and virials of configurations beside those that mace-torch found
   for them: 1e-14 apart in double, 1e-6 in float. Without a model a network of random weights
   shows how well its forces turn with a molecule. It teaches how a published network is put
   together of parts whose weights have its names; how weights are taken that are counted
   differently; and that forces and virial are two slopes of one number.

   --data is a model (or several, with commas), --atoms an extended xyz file: energies and forces of
   its frames are printed. With --serve the atoms of its first frame are moved by ASE, i-PI and
   others (see ipi.h). A model is the state_dict of a MACE or ScaleShiftMACE, as MACE-MP-0, what
   followed it and MACE-OFF23 are, as a file of safetensors that also says what it does not tell:

      import safetensors.torch, torch
      m = torch.load("MACE.model", map_location="cpu", weights_only=False).double()
      last, heads = m.readouts[-1], getattr(m, "heads", ["only"])
      h, H, K = 0, len(heads), last.hidden_irreps.dim // len(heads)  # h: which of several heads
      w = {k: v for k, v in m.state_dict().items()
           if v.numel() and "_compiled" not in k and "output_mask" not in k}
      for k, v in w.items():
          if "scale_shift" in k or "atomic_energies" in k: w[k] = v.view(H, -1)[h]
          elif "readouts" in k and "linear_1" in k: w[k] = v.view(-1, H, K)[:, h]
          elif "readouts" in k and "linear_2" in k: w[k] = v.view(H, K, H)[h, :, h] / H**0.5
          elif "readouts" in k: w[k] = v.view(-1, H)[:, h]
      factors = [len(p.symmetric_contractions.contractions[0].weights) + 1 for p in m.products]
      means = [float(i.avg_num_neighbors) for i in m.interactions]
      safetensors.torch.save_file({k: v.contiguous() for k, v in w.items()}, "MACE.safetensors", {
          "modules": " ".join(type(x).__name__ for x in m.modules() if "mace." in str(type(x))),
          "layers": " ".join(f"{mean!r} {n}" for mean, n in zip(means, factors)),
          "radial": ",".join(map(str, m.interactions[0].conv_tp_weights.hs[1:-1])),
          "harmonics": str(m.spherical_harmonics.irreps_out),
          "hidden": str(m.products[0].linear.irreps_out), "mlp": f"{K}x0e",
          "act": last.non_linearity.acts[0].f.__name__,
          "cutoff": "radial" if getattr(m.radial_embedding, "apply_cutoff", True) else "messages"})

   Refused, by a sentence or already in Python: radial functions that are not Bessel's, interactions
   with attention or gates, embeddings of charge and spin, dipoles, a single layer, a last readout
   without act, compiled models, and whatever has weights that find no place.

      cc -O2 -fopenmp -DEQNN_DOUBLE -I. examples/mace.c -lm -o mace
      ./mace --data MACE.safetensors --atoms start.xyz --serve unix:mace

   "make test" runs it with
      --data tests/mace.safetensors,tests/mace_density.safetensors,tests/mace_soft.safetensors */

#define _DEFAULT_SOURCE 1 /* sockets, which -std=c99 hides */
#define EQNN_IMPLEMENTATION
#include "eqnn_data.h"
#include "ipi.h"

enum { NUCLEI = 119, LAYERS = 16 }; /* at most; nucleus 0 is none */
enum { AGNESI = 1 << 4, SOFT = 1 << 5, REPULSION = 1 << 6, SCALED = 1 << 7 }; /* see read_modules */

typedef struct mace_layer {
    int residual, density;         /* the features before are added; what sums are divided by */
    double neighbours;             /* without density: sums are divided by so many            */
    int correlation;               /* factors of a product                                    */
} mace_layer;

typedef struct mace {
    eqnn_ctx *c;
    eqnn_file *file;
    const char *hidden, *mlp;      /* irreps of a layer; scalars within the last readout      */
    const char *radial;            /* widths of the network of the radial functions           */
    eqnn_act act;                  /* of the last readout                                     */
    int parts, lmax, layers, late; /* what there is; the harmonics' degree; messages are cut  */
    mace_layer layer[LAYERS];
    int bessel, elements;          /* how many radial functions, elements                     */
    double height, cutoff, radius; /* of radial functions; their cutoff's order and end (A)   */
    double scale, shift;           /* of an atom's energy, to which the lone atom's is added  */
    double charge[NUCLEI], lone[NUCLEI];      /* of each element: the nucleus; that energy    */
    double q, p, a, alpha, bond[NUCLEI];      /* changed distances; covalent radii, angstrom  */
    double c_n[4], power, length, end, core[NUCLEI]; /* repulsion; its cutoff; covalent radii */
    int *kind, atoms;              /* of the frame that moves: which element                  */
} mace;

/* ------------------------------------------------------------------------------------------------
   The network
   ---------------------------------------------------------------------------------------------- */

/* What is where. r, b and fade have a row for each pair of edges where edges come in pairs, else
   for each edge. Atoms stay in their order, in which neighbours may lie close together. */
typedef struct scene {
    const eqnn_graph *g;
    eqnn_ints *element, *nucleus, *sorted, *place; /* of an atom; atoms by element; where each is */
    int first[NUCLEI + 1];                         /* place of an element's first atom            */
    eqnn_tensor *r, *b, *fade;                     /* lengths; radial functions; late cutoff      */
} scene;

static scene look(const mace *m, const int *kind, int atoms)
{
    scene s = { .element = eqnn_ints_make(m->c, atoms, kind, m->elements, 0) };
    int n = 0, *Z = s.element ? malloc(3 * ((size_t)atoms + 1) * sizeof *Z) : NULL;
    int *sorted = Z ? Z + atoms : NULL, *place = Z ? sorted + atoms : NULL;
    if (!Z) eqnn_fail(m->c, "no memory for %d atoms", atoms);
    for (int k = 0; Z && k < m->elements; s.first[++k] = n)
        for (int a = 0; a < atoms; a++)
            if (kind[a] == k) Z[a] = (int)m->charge[k], place[a] = n, sorted[n++] = a;
    s.nucleus = Z ? eqnn_ints_make(m->c, n, Z, NUCLEI, 0) : NULL;
    s.sorted = Z ? eqnn_ints_make(m->c, n, sorted, n, 0) : NULL;
    s.place = Z ? eqnn_ints_make(m->c, n, place, n, 0) : NULL;
    free(Z);
    return s;
}

/* A linear map for each element, of weights [degree, u, element, w]: what a tensor product with the
   element as a vector of zeros and a one is, but for elements that are not there. */
static eqnn_tensor *of_element(const mace *m, eqnn_tensor *x, const scene *s, const char *name,
                               const char *irreps)
{
    const eqnn_irreps *in = eqnn_label_of(x), *out = in ? eqnn_irreps_make(m->c, irreps) : NULL;
    int C = out && out->block[0].copies ? out->block[0].copies : 1, parts = 0;
    int n = eqnn_irreps_map_weights(in, out, NULL);
    eqnn_tensor *W = eqnn_param(m->c, name, n / C, C * m->elements, NULL), *part[NUCLEI];
    x = eqnn_take(x, s->sorted);
    for (int k = 0; k < m->elements; k++) {
        int rows = s->first[k + 1] - s->first[k];
        if (!rows) continue;
        eqnn_tensor *w = eqnn_reshape(eqnn_slice(W, k * C, C), 1, n);
        part[parts++] = eqnn_irreps_map(eqnn_slice_rows(x, s->first[k], rows), w, NULL, out, NULL);
    }
    return eqnn_take(eqnn_scale(eqnn_stack(part, parts), 1 / sqrt(m->elements)), s->place);
}

/* Of each edge: what two nuclei have, joined. */
static eqnn_tensor *both(const mace *m, const scene *s, const double *value,
                         eqnn_tensor *(*join)(eqnn_tensor *, eqnn_tensor *))
{
    eqnn_tensor *x = eqnn_take(eqnn_from_double(m->c, NUCLEI, 1, value), s->nucleus);
    x = join(eqnn_gather(x, s->g), eqnn_gather_target(x, s->g));
    return s->g->pairs ? eqnn_take(x, s->g->pair_edge_index) : x;
}

/* Distances as the radial functions see them, finer where bonds are; R is the sum of two covalent
   radii. Agnesi's (Witt et al. 2023, doi:10.1063/5.0158783), s = 2 r / R, and a soft step:

       y = 1 / (1 + a s^q / (1 + s^(q-p)))
       y = r_0 + (r - r_0) (1 + tanh(alpha (r - (r_0 + r_1) / 2) / (r_1 - r_0))) / 2,
       r_0 = 3 R / 4,  r_1 = 4 R / 3                                                          */
static eqnn_tensor *changed(const mace *m, const scene *s)
{
    if (!(m->parts & (AGNESI | SOFT))) return s->r;
    const double r_0 = 3.0 / 4, r_1 = 4.0 / 3;
    eqnn_tensor *R = both(m, s, m->bond, eqnn_add), *x = eqnn_div(s->r, R);
    if (m->parts & AGNESI) {
        x = eqnn_scale(x, 2);
        eqnn_tensor *far = eqnn_shift(eqnn_pow(x, m->q - m->p), 1);
        return eqnn_reciprocal(eqnn_shift(eqnn_div(eqnn_scale(eqnn_pow(x, m->q), m->a), far), 1));
    }
    x = eqnn_scale(eqnn_shift(x, -(r_0 + r_1) / 2), m->alpha / (r_1 - r_0));
    x = eqnn_scale(eqnn_shift(eqnn_tanh(x), 1), 0.5);
    R = eqnn_scale(R, r_0);
    return eqnn_affine(eqnn_sub(s->r, R), x, R);
}

/* Radial functions of y, the distance or what it is changed to, and the cutoff u of the distance r
   (eq. 7): height sin(w_n y) / y u(r). */
static void radial(const mace *m, scene *s)
{
    const char *name = "radial_embedding.bessel_fn.bessel_weights";
    eqnn_tensor *y = changed(m, s), *w = eqnn_param(m->c, name, 1, m->bessel, NULL);
    s->b = eqnn_mul(eqnn_map(eqnn_mul(y, w), EQNN_SINC, 0, 0), eqnn_scale(w, m->height));
    eqnn_tensor *u = eqnn_map(eqnn_scale(s->r, 1 / m->radius), EQNN_POLY_CUTOFF, m->cutoff, 0);
    if (m->late) s->fade = u;
    else s->b = eqnn_mul(s->b, u);
}

/* The repulsion of nuclei (Ziegler, Biersack and Littmark 1985), [1,1], up to the sum R of two
   covalent radii: over pairs, in eV,

       sum of 14.3996 Z_i Z_j / r phi(r / l) u(r / R),   phi(x) = sum over n of c_n exp(-d_n x),
       l = 0.529 length / (Z_i^power + Z_j^power)                                             */
static eqnn_tensor *repulsion(const mace *m, const scene *s)
{
    static const double d[4] = { -3.2, -0.9423, -0.4028, -0.2016 };
    double Z[NUCLEI], Z_power[NUCLEI];
    for (int k = 0; k < NUCLEI; k++) Z[k] = k, Z_power[k] = pow(k, m->power);
    eqnn_tensor *x = eqnn_mul(s->r, both(m, s, Z_power, eqnn_add));
    x = eqnn_mul(x, eqnn_scale(eqnn_from_double(m->c, 1, 4, d), 1 / (0.529 * m->length)));
    eqnn_tensor *phi = eqnn_matmul(eqnn_exp(x), eqnn_from_double(m->c, 4, 1, m->c_n));
    eqnn_tensor *u = eqnn_map(eqnn_div(s->r, both(m, s, m->core, eqnn_add)), EQNN_POLY_CUTOFF,
                              m->end, 0);
    eqnn_tensor *V = eqnn_mul(eqnn_div(both(m, s, Z, eqnn_mul), s->r), eqnn_mul(phi, u));
    return eqnn_scale(eqnn_sum(V), s->g->pairs ? 14.3996 : 14.3996 / 2);
}

/* What a node i hears of its neighbours j (eqs. 8 and 9), all degrees up to that of Y:

       A_i = linear(sum over j of R(r_ij) Y(r_ij) (x) linear_up(x_j)) / n_i

   R is a number for each path of the product, made of the radial functions b by a network. Its
   last layer is left to eqnn_message, which so stores nothing for an edge and path. n_i is the
   number of neighbours in the mean, or a density that is learned: 1 + sum over j of tanh(d(b)^2),
   d linear. */
static eqnn_tensor *interaction(const mace *m, const mace_layer *l, eqnn_tensor *x,
                                eqnn_tensor *Y, const scene *s, const eqnn_irreps *A)
{
    if (!x || !Y) return NULL;
    eqnn_ctx *c = eqnn_context(x);
    const eqnn_product *p = eqnn_product_channelwise(c, eqnn_label_of(x), eqnn_label_of(Y), A,
                                                     &(eqnn_product_opts){ .by_output = 1 });
    x = eqnn_irreps_linear(x, "linear_up", eqnn_label_of(x)->name, NULL);
    eqnn_tensor *h = eqnn_fc(s->b, "conv_tp_weights", m->radial, &(eqnn_fc_opts){ .out_act = 1 });
    int depth = 1;
    for (const char *w = m->radial; *w; w++) depth += *w == ',';
    eqnn_tensor *V = eqnn_param(c, eqnn_format(c, "conv_tp_weights.layer%d.weight", depth),
                                eqnn_cols(h), p ? eqnn_product_weights(p) : 0, NULL);
    if (s->fade) h = eqnn_mul(h, s->fade);
    x = eqnn_message(x, Y, h, eqnn_scale(V, 1 / sqrt(eqnn_cols(h))), p, s->g);
    x = eqnn_irreps_linear(x, "linear", A->name, NULL);
    if (!l->density) return eqnn_scale(x, 1 / l->neighbours);
    eqnn_tensor *d = eqnn_tanh(eqnn_square(eqnn_fc(s->b, "density_fn", "1", NULL)));
    if (s->fade) d = eqnn_mul(d, s->fade);
    if (s->g->pairs) d = eqnn_take(d, s->g->pair_index);
    return eqnn_div(x, eqnn_shift(eqnn_scatter(d, s->g), 1));
}

/* One layer's energies of the atoms (eq. 13); the last readout is not linear. */
static eqnn_tensor *readout(const mace *m, eqnn_tensor *x, int layer)
{
    int last = layer == m->layers - 1;
    if (!x) return NULL;
    x = eqnn_enter(x, eqnn_format(eqnn_context(x), "readouts.%d", layer));
    if (last) x = eqnn_activation(eqnn_irreps_linear(x, "linear_1", m->mlp, NULL), &m->act, 0);
    return eqnn_leave(eqnn_irreps_linear(x, last ? "linear_2" : "linear", "0e", NULL));
}

/* The energy [1,1] less that of lone atoms, of edge vectors r. */
static eqnn_tensor *energy(const mace *m, scene *s, eqnn_tensor *r)
{
    eqnn_ctx *c = m->c;
    const eqnn_irreps *hidden = s->g ? eqnn_irreps_make(c, m->hidden) : NULL;
    if (!hidden || !hidden->blocks) return NULL;
    const eqnn_irreps *A_irreps = eqnn_irreps_uniform(c, hidden->block[0].copies, m->lmax);
    const char *scalars = eqnn_format(c, "%dx0e", hidden->block[0].copies);
    eqnn_contraction_opts many = { .species = s->element };
    eqnn_tensor *Y = eqnn_spherical_harmonics(r, m->lmax, &(eqnn_harmonics_opts){ .normalize = 1 });
    eqnn_tensor *x = eqnn_param(c, "node_embedding.linear.weight", m->elements,
                                hidden->block[0].copies, NULL), *sum = NULL;
    x = eqnn_scale(eqnn_take(x, s->element), 1 / sqrt(m->elements));
    x = eqnn_as(x, eqnn_irreps_make(c, scalars));
    s->r = eqnn_norm(s->g->pairs ? eqnn_take(r, s->g->pair_edge_index) : r);
    radial(m, s);
    for (int t = 0; t < m->layers; t++) {
        const mace_layer *l = &m->layer[t];
        const char *out = t == m->layers - 1 ? scalars : m->hidden;
        eqnn_tensor *skip = NULL;
        x = eqnn_enter(x, eqnn_format(c, "interactions.%d", t));
        eqnn_tensor *A = interaction(m, l, x, Y, s, A_irreps);
        if (l->residual) skip = of_element(m, x, s, "skip_tp.weight", out);
        else A = of_element(m, A, s, "skip_tp.weight", A_irreps->name);

        x = eqnn_enter(eqnn_leave(A), eqnn_format(c, "products.%d", t)); /* eqs. 10 and 11 */
        many.correlation = l->correlation;
        x = eqnn_symmetric_contraction(x, "symmetric_contractions", out, &many);
        x = eqnn_leave(eqnn_irreps_linear(x, "linear", out, NULL));
        if (skip) x = eqnn_add(x, skip);
        eqnn_tensor *part = readout(m, x, t);
        sum = sum ? eqnn_add(sum, part) : part;
    }
    sum = eqnn_sum(eqnn_as(sum, NULL));
    if (m->parts & REPULSION) sum = eqnn_add(sum, repulsion(m, s));
    return eqnn_shift(eqnn_scale(sum, m->scale), m->shift * s->g->targets);
}

/* What comes out: the energy; forces [atoms,3]; the virial -dE/dstrain [3,3]. */
typedef struct outcome { double E; eqnn_tensor *F, *W; int edges; } outcome;

static outcome field(const mace *m, const int *kind, int atoms, eqnn_tensor *pos,
                     const double *cell)
{
    outcome o = { 0, NULL, NULL, 0 };
    scene s = look(m, kind, atoms);
    s.g = eqnn_radius_graph(pos, m->radius, &(eqnn_graph_opts){ .cell = cell });
    eqnn_tensor *r = eqnn_as(eqnn_edge_vectors(pos, s.g), NULL), *by[2] = { pos, r };
    eqnn_recording(m->c, 1);
    /* theirs lead from source to target */
    eqnn_tensor *E = energy(m, &s, eqnn_neg(r)), *slope[2] = { NULL, NULL };
    eqnn_recording(m->c, 0);
    eqnn_grads(E, by, 2, slope);
    eqnn_recording(m->c, 1);
    o.F = eqnn_neg(slope[0]);
    o.W = eqnn_neg(eqnn_matmul_t(r, slope[1], 1, 0));
    o.E = eqnn_value(E);
    o.edges = s.g ? s.g->edges : 0;
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

/* At most so many numbers of an entry, in double. Returns how many. */
static int numbers(const mace *m, const char *name, int most, double *out)
{
    const eqnn_entry *e = eqnn_file_find(m->file, name);
    if (e && e->count <= (size_t)most) return eqnn_file_read(m->file, e, out) ? (int)e->count : 0;
    eqnn_fail(m->c, "%s: not in the file, or more than %d numbers", name, most);
    return 0;
}

/* What the model is made of, by the names of its parts; the first eight are bits of m->parts. */
static void read_modules(mace *m, const char *at)
{
    enum { KINDS = 4, BITS = 8 };
    static const char *const known[] = {
        "RealAgnosticInteractionBlock", "RealAgnosticResidualInteractionBlock",
        "RealAgnosticDensityInteractionBlock", "RealAgnosticDensityResidualInteractionBlock",
        "AgnesiTransform", "SoftTransform", "ZBLBasis", "ScaleShiftBlock", "MACE", "ScaleShiftMACE",
        "LinearNodeEmbeddingBlock", "RadialEmbeddingBlock", "BesselBasis", "PolynomialCutoff",
        "AtomicEnergiesBlock", "EquivariantProductBasisBlock", "SymmetricContraction",
        "Contraction", "LinearReadoutBlock", "NonLinearReadoutBlock", "reshape_irreps", NULL };
    for (m->layers = 0; *at && !eqnn_error(m->c); at += strspn(at, " ")) {
        int length = (int)strcspn(at, " "), k = 0;
        const char *name = eqnn_format(m->c, "%.*s", length, at);
        while (known[k] && strcmp(name, known[k])) k++;
        if (!known[k]) eqnn_fail(m->c, "the model has %s, which is not known here", name);
        else if (k < KINDS && m->layers < LAYERS)
            m->layer[m->layers++] = (mace_layer){ .residual = k & 1, .density = k >> 1 };
        if (k < BITS) m->parts |= 1 << k;
        at += length;
    }
}

static void read_constants(mace *m)
{
    const struct { const char *name; double *to; int count, needed; } all[] = {
        { "r_max", &m->radius, 1, 1 },
        { "radial_embedding.cutoff_fn.p", &m->cutoff, 1, 1 },
        { "radial_embedding.bessel_fn.prefactor", &m->height, 1, 1 },
        { "scale_shift.scale", &m->scale, 1, SCALED },
        { "scale_shift.shift", &m->shift, 1, SCALED },
        { "radial_embedding.distance_transform.covalent_radii", m->bond, NUCLEI, AGNESI | SOFT },
        { "radial_embedding.distance_transform.q", &m->q, 1, AGNESI },
        { "radial_embedding.distance_transform.p", &m->p, 1, AGNESI },
        { "radial_embedding.distance_transform.a", &m->a, 1, AGNESI },
        { "radial_embedding.distance_transform.alpha", &m->alpha, 1, SOFT },
        { "pair_repulsion_fn.covalent_radii", m->core, NUCLEI, REPULSION },
        { "pair_repulsion_fn.c", m->c_n, 4, REPULSION },
        { "pair_repulsion_fn.p", &m->end, 1, REPULSION },
        { "pair_repulsion_fn.a_exp", &m->power, 1, REPULSION },
        { "pair_repulsion_fn.a_prefactor", &m->length, 1, REPULSION },
    };
    for (size_t k = 0; k < sizeof all / sizeof *all && !eqnn_error(m->c); k++)
        if ((all[k].needed & (m->parts | 1)) &&
            numbers(m, all[k].name, all[k].count, all[k].to) != all[k].count)
            eqnn_fail(m->c, "%s: not %d numbers", all[k].name, all[k].count);
    const eqnn_entry *b = eqnn_file_find(m->file, "radial_embedding.bessel_fn.bessel_weights");
    m->bessel = b ? (int)b->count : 0;
    m->elements = numbers(m, "atomic_numbers", NUCLEI - 1, m->charge);
    if (numbers(m, "atomic_energies_fn.atomic_energies", NUCLEI - 1, m->lone) != m->elements)
        eqnn_fail(m->c, "there are not as many energies of lone atoms as elements");
}

static const char *text(const mace *m, const char *key)
{
    const char *value = eqnn_file_meta(m->file, key);
    if (!value) eqnn_fail(m->c, "the file lacks \"%s\"; see the program's head", key);
    return value ? value : "";
}

/* All but the weights. */
static void read_model(mace *m)
{
    const char *layers = text(m, "layers"), *harmonics = text(m, "harmonics");
    const char *cutoff = text(m, "cutoff");
    m->radial = text(m, "radial");
    m->hidden = text(m, "hidden");
    m->mlp = text(m, "mlp");
    m->late = !strcmp(cutoff, "messages");
    if (!m->late && strcmp(cutoff, "radial")) eqnn_fail(m->c, "a cutoff of %s", cutoff);
    m->act = eqnn_act_find(m->c, text(m, "act"));
    read_modules(m, text(m, "modules"));
    for (int t = 0, n = 0; t < m->layers; t++, layers += n) {
        mace_layer *l = &m->layer[t];
        if (sscanf(layers, "%lf%d%n", &l->neighbours, &l->correlation, &n) < 2)
            eqnn_fail(m->c, "the file's \"layers\" are fewer than %d", m->layers);
    }
    const eqnn_irreps *Y = eqnn_irreps_make(m->c, harmonics), *natural = NULL;
    if ((m->lmax = eqnn_irreps_lmax(Y)) >= 0) natural = eqnn_irreps_spherical(m->c, m->lmax);
    if (m->layers < 2) eqnn_fail(m->c, "a model of %d layers", m->layers);
    if (!natural || strcmp(Y->name, natural->name))
        eqnn_fail(m->c, "\"%s\" are not harmonics of all degrees, even and odd", harmonics);
    if (!eqnn_error(m->c)) read_constants(m);
    eqnn_reset(m->c);
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
    int block = at[-1] - '0', t = atoi(name + strlen("products."));
    int nu = m->layer[t].correlation - (at[8] == '_' ? 0 : 1 + atoi(at + 9));
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
    eqnn_tensor *w = entry(m, name, 0, hidden->block[0].copies), *part[NUCLEI], *Q = NULL;
    int K = eqnn_rows(w) / m->elements;
    if (basis && eqnn_reduced_basis(rows, basis)) Q = eqnn_from_double(c, P, F, basis);
    free(basis);
    const char *U_name = eqnn_format(c, "%.*s.U_matrix_%d", (int)(at - name), name, nu);
    eqnn_tensor *U = eqnn_slice_rows(entry(m, U_name, L->dim * F, K), 0, F);
    eqnn_tensor *M = eqnn_matmul(Q, U);
    for (int s = 0; s < m->elements; s++) part[s] = eqnn_matmul(M, eqnn_slice_rows(w, s * K, K));
    return eqnn_stack(part, m->elements);
}

/* An entry that nothing has asked for may be an option that is not here. */
static void look_for_others(const mace *m)
{
    static const char *const asked[] = { "atomic_", "num_interactions", "r_max", ".U_matrix_",
                                         "radial_embedding.", "pair_repulsion_fn.", "scale_shift.",
                                         "_zeroed", "test.", NULL };
    for (int i = 0; i < eqnn_file_count(m->file) && !eqnn_error(m->c); i++) {
        const char *name = eqnn_file_entry(m->file, i)->name;
        int k = 0;
        while (asked[k] && !strstr(name, asked[k])) k++;
        if (!asked[k] && !eqnn_parameter(m->c, name))
            eqnn_fail(m->c, "the file has %s, for which the network has no place", name);
    }
}

/* All parameters, which a first call has made, from the entries of their names. */
static void read_weights(const mace *m)
{
    look_for_others(m);
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

/* The larger of two errors, of which one may be no number. */
static double worse(double a, double b) { return a > b || isnan(a) ? a : b; }

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
    return worse(dE, worse(dF, dW));
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
        worst = worse(worst, compare(m, i));
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

/* Asked of a model, or of random weights; the exit status. */
static int one_model(eqnn_args *a, const eqnn_opts *o, const char *path, const char *atoms,
                     const char *serve)
{
    const mace_layer simple = { .residual = 1, .correlation = 3, .neighbours = 6 };
    mace m = { .hidden = "16x0e+16x1o", .mlp = "16x0e", .act = EQNN_SILU, .lmax = 3, .layers = 2,
               .layer = { simple, simple }, .radial = "64,64,64", .bessel = 8, .height = 1,
               .cutoff = 5, .radius = 4, .scale = 1, .elements = 3 };
    m.c = eqnn_program_start(a, o);
    if (m.c && *path && (m.file = eqnn_file_open(m.c, path)) != NULL) read_model(&m);
    int good = m.c && !eqnn_error(m.c) && run(&m, atoms, serve);
    eqnn_file_close(m.file);
    free(m.kind);
    return eqnn_program_end(a, m.c) || (m.c && !good);
}

int main(int argc, char **argv)
{
    eqnn_args a;
    eqnn_args_read(&a, argc, argv, "Computes what a model of mace-torch does.", options);
    eqnn_opts o = eqnn_args_context(&a);
    const char *data = eqnn_args_text(&a, "data"), *atoms = eqnn_args_text(&a, "atoms");
    const char *serve = eqnn_args_text(&a, "serve");
    if ((*serve || *atoms) && !*data)
        eqnn_args_fail(&a, "--atoms and --serve need a model, --data");
    if (*serve && !*atoms) eqnn_args_fail(&a, "--serve needs --atoms, which says what they are");
    char list[4096];
    snprintf(list, sizeof list, "%s", data);
    const char *path = strtok(list, ",");
    int status = one_model(&a, &o, path ? path : "", atoms, serve);
    while (!status && (path = strtok(NULL, ",")) != NULL)
        status = one_model(&a, &o, path, atoms, serve);
    return status;
}
