/* silicon.c - a network inside a simulation code: domains, ghost atoms, lists, pressure

   Codes for molecular dynamics (LAMMPS, GROMACS and others) cut space into domains, one for each
   process. A domain owns the atoms within it and has copies of those around it, ghosts, that other
   domains own or that are periodic images. Who is near whom it knows from a list that holds for
   some steps, since it reaches a bit farther ("skin") than forces do. A pair style then gets the
   edges of a domain and gives the energy of the atoms it owns and the slope of that by every edge;
   of the slopes the code makes forces, also on ghosts, which it sends home, and the pressure.

   This is such a code, with threads for processes, and two pair styles for silicon:

      the truth    Stillinger and Weber, Phys. Rev. B 31, 5262 (1985): pairs and angles
      a network    gated convolutions that have seen some hundred boxes of 64 atoms of the former

   To use a network in a code of your own, learned() is what you need: 20 lines. It differentiates
   by edge vectors (eqnn_graph_vectors), which the code takes from its positions in double; energies
   and forces are summed in double too. A network that passes messages n times needs ghosts n times
   as far as it sees, and no message between processes on the way. Weights are shared, every thread
   has a context of its own (eqnn_parts_make); a pair style of a single process has one only, as
   that of LAMMPS has in pair_eqnn.cpp, which reads the model that this program saves.

   You will see how wrong the network is; that energies and forces do not depend on the number of
   domains, nor on ghosts being taken for periodic images (eqnn_graph_opts.cell); that the pressure
   is the slope of the energy by the volume; and then the same crystal moved by both: temperature,
   pressure and potential energy agree, and the total energy stays.

      cc -O2 -fopenmp -I. examples/silicon.c -lm -o silicon
      ./silicon --cells 6 --kelvin 1200 --domains 2

   Training goes on with --resume, or, where it is finished, the simulation begins at once. With
   --serve ADDRESS, in its place, ASE, i-PI and other codes that speak i-PI's protocol (ipi.h) get
   forces for silicon in any cell:

      ./silicon --resume --serve unix:si     for SocketIOCalculator(unixsocket="si") of ASE

   "make test" runs it with
      --epochs 2 --n-train 4 --n-valid 2 --n-test 2 --cells 2 --md 6 --domains 3
      --hidden 4x0e+2x1o */

#define _DEFAULT_SOURCE 1 /* sockets, which -std=c99 hides */
#define EQNN_IMPLEMENTATION
#include "eqnn_data.h"
#include "ipi.h"

/* Units: eV, angstrom, atomic mass units, kelvin; of time angstrom sqrt(amu / eV). */
static const double boltzmann = 8.617333e-5, femtosecond = 1 / 10.180506, gigapascal = 160.21766;
static const double mass = 28.085, lattice = 5.431;

enum { TRAIN, VALID, TEST, SETS };
enum { MOST_DOMAINS = 64, MOST_CELLS = 60, CELLS = 2, ATOMS = 8 * CELLS * CELLS * CELLS };

typedef struct study {
    int domains, cells, md, layers, batch, count[SETS];
    double kelvin, dt, skin, rate;
    const char *hidden, *serve, *out;
    eqnn_run_opts run;
    eqnn_opts context;
    eqnn_ctx *c;
    /* boxes of ATOMS atoms to learn from, to choose weights by, to test */
    int frames, *items, first[SETS + 1];
    double *box, *x, *force, *energy;
    double mean;                             /* energy of an atom                                 */
    double error_energy, error_force, size;  /* of an atom; of a component, and the typical force */
} study;

/* ------------------------------------------------------------------------------------------------
   The simulation code
   ---------------------------------------------------------------------------------------------- */

/* What one process knows. Atoms own .. all-1 are ghosts. */
typedef struct domain {
    double low, high;        /* it owns low <= x < high, all y and z                              */
    int own, all;
    int *atom, *image;       /* [all] which atom of the box; [all][3] and in which image          */
    double *x;               /* [all][3]                                                          */
    int listed, *list;       /* [listed][2] source and target, nearer than reach + skin           */
    /* for pair styles: edges that are within reach now, those into a target one after the other */
    int edges, *source, *target;
    double *r, *slope;       /* [edges][3] x[source] - x[target]; to be given: d energy / dr      */
    double energy;           /* to be given: of the atoms it owns                                 */
} domain;

/* reach: how far a message goes, angstrom; passes: how many there are, one after the other */
typedef struct pair_style {
    const char *name;
    double reach;
    int passes;
    void (*compute)(eqnn_ctx *c, domain *d, const study *s);
} pair_style;

/* Atoms in a periodic cube, and what moves them. */
typedef struct simulation {
    const study *s;
    const pair_style *pair;
    eqnn_parts *workers;     /* a thread and a context for each domain                            */
    int n, domains;
    int lists, fresh;        /* how often lists were made; must they be made in this step         */
    double box, *x, *v, *force, *old; /* [n][3]; old: places when the lists were made             */
    double energy, virial;   /* virial: the trace, -dE/d(log box)                                 */
    domain domain[MOST_DOMAINS];
} simulation;

/* Room for n things of so many bytes, what was there is kept; 0 and an error when there is none. */
static int room(eqnn_ctx *c, void *place, int n, size_t size)
{
    void *old, *new;
    memcpy(&old, place, sizeof old);
    new = realloc(old, (size_t)n * size + 1);
    if (!new) return eqnn_fail(c, "no memory for %d of %d bytes", n, (int)size), 0;
    memcpy(place, &new, sizeof new);
    return 1;
}

/* Copies of all atoms within reach of the domain, its own first. */
static void take_atoms(const simulation *m, domain *d, eqnn_ctx *c, double halo)
{
    const double low[3] = { d->low, 0, 0 }, high[3] = { d->high, m->box, m->box };
    d->own = d->all = 0;
    for (int ghosts = 0; ghosts < 2; ghosts++)
        for (int k = 0; k < 27 * m->n; k++) {
            const int i = k / 27, image[3] = { k % 3 - 1, k / 3 % 3 - 1, k / 9 % 3 - 1 };
            int own = !image[0] && !image[1] && !image[2] && m->x[3 * i] >= d->low &&
                      m->x[3 * i] < d->high;
            double away = 0;
            for (int a = 0; a < 3; a++) {
                double x = m->x[3 * i + a] + image[a] * m->box;
                double out = fmax(0, fmax(low[a] - x, x - high[a]));
                away += out * out;
            }
            if (own == ghosts || away > halo * halo) continue;
            if (d->all % 256 == 0 && !(room(c, &d->atom, d->all + 256, sizeof *d->atom) &&
                                       room(c, &d->image, d->all + 256, 3 * sizeof *d->image) &&
                                       room(c, &d->x, d->all + 256, 3 * sizeof *d->x)))
                return;
            memcpy(d->image + 3 * d->all, image, sizeof image);
            d->atom[d->all++] = i;
            d->own += own;
        }
}

static void copy_places(const simulation *m, domain *d)
{
    for (int k = 0; k < 3 * d->all; k++)
        d->x[k] = m->x[3 * d->atom[k / 3] + k % 3] + d->image[k] * m->box;
}

/* Who is near whom: of the atoms whose messages reach those that the domain owns. */
static void make_list(const simulation *m, domain *d, eqnn_ctx *c)
{
    double skin = m->s->skin, inner = (m->pair->passes - 1) * m->pair->reach + skin;
    take_atoms(m, d, c, inner + m->pair->reach);
    copy_places(m, d);
    const eqnn_graph *g = eqnn_radius_graph(eqnn_from_double(c, d->all, 3, d->x),
                                            m->pair->reach + skin, NULL);
    d->listed = 0;
    int edges = g ? g->edges : 0;
    if (!room(c, &d->list, edges, 2 * sizeof *d->list) ||
        !room(c, &d->source, edges, sizeof *d->source) ||
        !room(c, &d->target, edges, sizeof *d->target) ||
        !room(c, &d->r, edges, 3 * sizeof *d->r) ||
        !room(c, &d->slope, edges, 3 * sizeof *d->slope)) return;
    for (int e = 0; e < edges; e++) {
        const double *x = d->x + 3 * g->target[e];
        double away = pow(fmax(0, fmax(d->low - x[0], x[0] - d->high)), 2);
        for (int a = 1; a < 3; a++) away += pow(fmax(0, fmax(-x[a], x[a] - m->box)), 2);
        if (away > inner * inner) continue;
        d->list[2 * d->listed] = g->source[e];
        d->list[2 * d->listed++ + 1] = g->target[e];
    }
}

/* The edges of the list that are within reach now. */
static void find_edges(domain *d, double reach)
{
    d->edges = 0;
    for (int e = 0; e < d->listed; e++) {
        int i = d->list[2 * e], j = d->list[2 * e + 1];
        double *r = d->r + 3 * d->edges, square = 0;
        for (int a = 0; a < 3; a++) r[a] = d->x[3 * i + a] - d->x[3 * j + a], square += r[a] * r[a];
        if (square >= reach * reach) continue;
        d->source[d->edges] = i;
        d->target[d->edges++] = j;
    }
}

/* One process's part of a step. */
static void work(eqnn_ctx *c, int number, int parts, void *user)
{
    simulation *m = user;
    domain *d = &m->domain[number];
    (void)parts;
    if (m->fresh) make_list(m, d, c);
    if (eqnn_error(c)) return;
    copy_places(m, d);
    find_edges(d, m->pair->reach);
    m->pair->compute(c, d, m->s);
}

/* Has an atom gone so far that the lists may miss a neighbour? Then all come home into the box. */
static void check_lists(simulation *m)
{
    double most = 0;
    for (int i = 0; i < m->n && m->lists; i++) {
        double square = 0;
        for (int a = 0; a < 3; a++) square += pow(m->x[3 * i + a] - m->old[3 * i + a], 2);
        most = fmax(most, square);
    }
    m->fresh = !m->lists || !(sqrt(most) < .5 * m->s->skin);
    if (!m->fresh) return;
    for (int k = 0; k < 3 * m->n; k++) {
        m->x[k] -= m->box * floor(m->x[k] / m->box);
        if (!(m->x[k] < m->box)) m->x[k] = 0; /* -1e-20 + box is box */
        m->old[k] = m->x[k];
    }
    m->lists++;
}

/* Energy, forces and virial. Forces on ghosts go to the atoms they are copies of; all are summed in
   the order of domains and edges, whichever thread was first. */
static int find_forces(simulation *m)
{
    eqnn_ctx *c = m->s->c;
    check_lists(m);
    if (!eqnn_parts_run(m->workers, work, m)) return 0;
    eqnn_reset(c);
    m->energy = m->virial = 0;
    memset(m->force, 0, 3 * (size_t)m->n * sizeof *m->force);
    for (int k = 0; k < m->domains; k++) {
        const domain *d = &m->domain[k];
        m->energy += d->energy;
        for (int e = 0; e < d->edges; e++)
            for (int a = 0; a < 3; a++) {
                double slope = d->slope[3 * e + a];
                m->force[3 * d->atom[d->source[e]] + a] -= slope;
                m->force[3 * d->atom[d->target[e]] + a] += slope;
                m->virial -= d->r[3 * e + a] * slope;
            }
    }
    return 1;
}

static void end_simulation(simulation *m)
{
    for (int k = 0; k < m->domains; k++) {
        domain *d = &m->domain[k];
        free(d->atom), free(d->image), free(d->x), free(d->list);
        free(d->source), free(d->target), free(d->r), free(d->slope);
    }
    eqnn_parts_free(m->workers);
    free(m->x), free(m->v), free(m->force), free(m->old);
    memset(m, 0, sizeof *m);
}

/* Another edge length: slabs and lists are new. */
static void set_box(simulation *m, double box)
{
    m->box = box, m->lists = 0;
    for (int k = 0; k < m->domains; k++) {
        m->domain[k].low = box * k / m->domains;
        m->domain[k].high = box * (k + 1) / m->domains;
    }
}

/* A diamond of cells^3 cubes of 8 atoms, stretched, at rest, in slabs for so many processes. */
static int start_simulation(simulation *m, const study *s, const pair_style *pair, eqnn_ctx *c,
                            int cells, int domains, double stretch)
{
    static const double corner[8][3] = { { 0, 0, 0 }, { 0, 2, 2 }, { 2, 0, 2 }, { 2, 2, 0 },
                                         { 1, 1, 1 }, { 1, 3, 3 }, { 3, 1, 3 }, { 3, 3, 1 } };
    memset(m, 0, sizeof *m);
    m->s = s, m->pair = pair, m->domains = domains;
    m->n = 8 * cells * cells * cells;
    set_box(m, cells * lattice * stretch);
    double halo = pair->passes * pair->reach + s->skin;
    if (m->box < halo)
        return eqnn_fail(c, "a box of %.3g A is too small for ghosts up to %.3g A: more --cells, "
                            "fewer --num-layers", m->box, halo), 0;
    if (!room(c, &m->x, m->n, 3 * sizeof(double)) || !room(c, &m->v, m->n, 3 * sizeof(double)) ||
        !room(c, &m->force, m->n, 3 * sizeof(double)) ||
        !room(c, &m->old, m->n, 3 * sizeof(double))) return 0;
    for (int i = 0; i < m->n; i++) {
        int j = i / 8;
        const int at[3] = { j % cells, j / cells % cells, j / cells / cells };
        for (int a = 0; a < 3; a++)
            m->x[3 * i + a] = (at[a] + (corner[i % 8][a] + .5) / 4) * lattice * stretch;
        for (int a = 0; a < 3; a++) m->v[3 * i + a] = 0;
    }
    m->workers = eqnn_parts_make(c, domains, s->context.threads);
    return m->workers != NULL;
}

/* Velocities of the temperature, without motion of the whole. */
static void warm_up(eqnn_ctx *c, const char *name, double kelvin, int n, double *v)
{
    double mean[3] = { 0 };
    eqnn_random(c, name, 1, 3 * (size_t)n, v);
    for (int k = 0; k < 3 * n; k++) {
        v[k] *= sqrt(boltzmann * kelvin / mass);
        mean[k % 3] += v[k] / n;
    }
    for (int k = 0; k < 3 * n; k++) v[k] -= mean[k % 3];
}

/* One step of velocity Verlet; forces must be there. The kinetic energy, NaN on an error. */
static double move(simulation *m)
{
    double dt = m->s->dt * femtosecond, kinetic = 0;
    for (int k = 0; k < 3 * m->n; k++)
        m->x[k] += dt * (m->v[k] += .5 * dt * m->force[k] / mass);
    if (!find_forces(m)) return NAN;
    for (int k = 0; k < 3 * m->n; k++) {
        m->v[k] += .5 * dt * m->force[k] / mass;
        kinetic += .5 * mass * m->v[k] * m->v[k];
    }
    return kinetic;
}

/* ------------------------------------------------------------------------------------------------
   The truth
   ---------------------------------------------------------------------------------------------- */

static const double sw_epsilon = 2.1683, sw_sigma = 2.0951, sw_a = 1.8 * 2.0951;

/* Half of a pair's energy, for its other edge has the other half:
   v(r) = eps A (B (sigma/r)^4 - 1) exp(sigma / (r - a)), r < a */
static double pair_energy(const double *r, double *slope)
{
    const double A = 7.049556277, B = .6022245584;
    double length = sqrt(r[0] * r[0] + r[1] * r[1] + r[2] * r[2]);
    if (length >= sw_a) return 0;
    double q = B * pow(sw_sigma / length, 4), fade = exp(sw_sigma / (length - sw_a));
    double v = sw_epsilon * A * (q - 1) * fade;
    double dv = -4 * sw_epsilon * A * q / length * fade - v * sw_sigma / pow(length - sw_a, 2);
    for (int a = 0; a < 3; a++) slope[a] += .5 * dv * r[a] / length;
    return .5 * v;
}

/* Of two edges into one atom, which want the angle of a tetrahedron:
   v = eps lambda exp(gamma sigma (1/(|r| - a) + 1/(|q| - a))) (cos + 1/3)^2 */
static double angle_energy(const double *r, const double *q, double *dr, double *dq)
{
    const double lambda = 21, gamma = 1.2 * sw_sigma;
    double rr = 0, qq = 0, rq = 0;
    for (int a = 0; a < 3; a++) rr += r[a] * r[a], qq += q[a] * q[a], rq += r[a] * q[a];
    rr = sqrt(rr), qq = sqrt(qq);
    if (rr >= sw_a || qq >= sw_a) return 0;
    double cosine = rq / (rr * qq), off = cosine + 1. / 3;
    double scale = sw_epsilon * lambda * exp(gamma / (rr - sw_a) + gamma / (qq - sw_a));
    double v = scale * off * off, dcos = 2 * scale * off;
    double dlr = -v * gamma / pow(rr - sw_a, 2), dlq = -v * gamma / pow(qq - sw_a, 2);
    for (int a = 0; a < 3; a++) {
        dr[a] += dlr * r[a] / rr + dcos * (q[a] / qq - cosine * r[a] / rr) / rr;
        dq[a] += dlq * q[a] / qq + dcos * (r[a] / rr - cosine * q[a] / qq) / qq;
    }
    return v;
}

static void truth(eqnn_ctx *c, domain *d, const study *s)
{
    (void)c, (void)s;
    d->energy = 0;
    memset(d->slope, 0, 3 * (size_t)d->edges * sizeof *d->slope);
    for (int e = 0; e < d->edges; e++) {
        if (d->target[e] >= d->own) continue;
        d->energy += pair_energy(d->r + 3 * e, d->slope + 3 * e);
        for (int f = e + 1; f < d->edges && d->target[f] == d->target[e]; f++)
            d->energy += angle_energy(d->r + 3 * e, d->r + 3 * f, d->slope + 3 * e,
                                      d->slope + 3 * f);
    }
}

static const pair_style stillinger_weber = { "Stillinger-Weber", 1.8 * 2.0951, 1, truth };

/* ------------------------------------------------------------------------------------------------
   The network
   ---------------------------------------------------------------------------------------------- */

static void learned(eqnn_ctx *c, domain *d, const study *s);

/* It sees a little farther than the truth. passes: --num-layers + 1 */
static pair_style network = { "network", 4, 0, learned };

static eqnn_network_opts network_options(const study *s)
{
    eqnn_network_opts o = { .hidden = s->hidden, .out = "1x0e", .radius = network.reach, .lmax = 2,
                            .layers = s->layers, .radial_neurons = 32, .neighbours = 16 };
    return o;
}

/* A note in the file: what other programs (pair_eqnn.cpp) need to call the network as it is called
   here. */
static void describe(const study *s)
{
    eqnn_network_opts o = network_options(s);
    eqnn_note(s->c, "silicon",
              eqnn_format(s->c, "radius %.17g lmax %d layers %d neurons %d neighbours %.17g "
                          "energy %.17g hidden %s", o.radius, o.lmax, o.layers, o.radial_neurons,
                          o.neighbours, s->mean, o.hidden));
}

/* The energy of each atom, from the mean on, [atoms,1]. */
static eqnn_tensor *atom_energies(eqnn_tensor *pos, const eqnn_graph *g, const study *s)
{
    eqnn_network_opts o = network_options(s);
    return eqnn_network(NULL, NULL, pos, g, "net", &o);
}

/* The pair style: energies of the atoms that the domain owns, and the slope of their sum by every
   edge. A graph sorts its edges; r and the slope stay in the domain's order. Places are all zero,
   since the graph has vectors, and say only how many atoms there are. */
static void learned(eqnn_ctx *c, domain *d, const study *s)
{
    const eqnn_graph *g = eqnn_graph_make(c, d->edges, d->source, d->target,
                                          &(eqnn_graph_opts){ .targets = d->all });
    eqnn_ints *order = g ? eqnn_ints_make(c, d->edges, g->order, d->edges, 0) : NULL;
    eqnn_tensor *r = eqnn_from_double(c, d->edges, 3, d->r);
    eqnn_recording(c, 1);
    g = eqnn_graph_vectors(g, eqnn_take(r, order));
    eqnn_tensor *E = eqnn_slice_rows(atom_energies(eqnn_zeros(c, d->all, 3), g, s), 0, d->own);
    eqnn_tensor *sum = eqnn_sum(E);
    eqnn_recording(c, 0); /* how the slope comes about need not be remembered */
    const eqnn_real *slope = eqnn_data(eqnn_grad(sum, r)), *each = eqnn_data(E);
    d->energy = d->own * s->mean;
    for (int i = 0; slope && i < d->own; i++) d->energy += (double)each[i];
    for (int k = 0; slope && k < 3 * d->edges; k++) d->slope[k] = (double)slope[k];
}

/* ------------------------------------------------------------------------------------------------
   What it learns from
   ---------------------------------------------------------------------------------------------- */

/* Crystals and melts: boxes stretched by up to 3 %, 100 fs after kicks of up to 5000 K. */
static int generate(study *s)
{
    eqnn_ctx *c = s->c;
    int n = s->frames = s->count[TRAIN] + s->count[VALID] + s->count[TEST];
    size_t row = 3 * ATOMS;
    if (!room(c, &s->box, n, sizeof(double)) || !room(c, &s->energy, n, sizeof(double)) ||
        !room(c, &s->x, n * 3 * ATOMS, sizeof(double)) || !room(c, &s->items, n, sizeof(int)) ||
        !room(c, &s->force, n * 3 * ATOMS, sizeof(double))) return 0;
    for (int i = 0; i < n && !eqnn_error(c) && !eqnn_interrupted(); i++) {
        simulation m;
        double u[2];
        eqnn_random(c, eqnn_format(c, "box%d", i), 0, 2, u);
        if (start_simulation(&m, s, &stillinger_weber, c, CELLS, 1, .97 + .06 * u[0])) {
            warm_up(c, eqnn_format(c, "kick%d", i), 300 + 4700 * u[1], ATOMS, m.v);
            find_forces(&m);
            for (double t = 0; t < 100 && !eqnn_error(c); t += s->dt) move(&m);
            s->box[i] = m.box, s->energy[i] = m.energy;
            memcpy(s->x + row * (size_t)i, m.x, row * sizeof *m.x);
            memcpy(s->force + row * (size_t)i, m.force, row * sizeof *m.force);
        }
        end_simulation(&m);
    }
    eqnn_split_counts(c, 0, n, s->count, SETS, s->items, s->first);
    for (int i = s->first[TRAIN]; i < s->first[TRAIN + 1]; i++)
        s->mean += s->energy[s->items[i]] / ATOMS / s->count[TRAIN];
    return !eqnn_error(c) && !eqnn_interrupted();
}

/* Energies [n,1], from the mean on, and forces [n*ATOMS,3] of boxes, in one periodic graph. */
static eqnn_tensor *predict(const study *s, const double *box, const double *x, int n, int atoms,
                            int learning, eqnn_tensor **force)
{
    eqnn_ctx *c = s->c;
    double *cell = calloc((size_t)n, 9 * sizeof *cell);
    int *example = calloc((size_t)(n * atoms) + 1, sizeof *example);
    for (int i = 0; cell && i < n; i++)
        for (int a = 0; a < 3; a++) cell[9 * i + 4 * a] = box[i];
    for (int i = 0; example && i < n * atoms; i++) example[i] = i / atoms;
    if (!cell || !example) eqnn_fail(c, "no memory for %d boxes", n);
    eqnn_tensor *pos = eqnn_from_double(c, n * atoms, 3, x);
    const eqnn_graph *g = eqnn_radius_graph(
        pos, network.reach, &(eqnn_graph_opts){ .cell = cell, .example = example, .examples = n });
    free(cell), free(example);
    eqnn_recording(c, 1);
    eqnn_tensor *E = eqnn_pool_sum(atom_energies(pos, g, s), g), *sum = eqnn_sum(E);
    eqnn_recording(c, learning);
    *force = eqnn_neg(eqnn_grad(sum, pos));
    return E;
}

/* A frame of another code's, with periodic images in the place of ghosts (ipi.h). Vectors of the
   edges are variables of their own: slopes by them give forces and virial. */
static void answer(eqnn_ctx *c, ipi_frame *f, void *user)
{
    const study *s = user;
    const int n = f->atoms;
    eqnn_tensor *pos = eqnn_from_double(c, n, 3, f->x);
    const eqnn_graph *g =
        eqnn_radius_graph(pos, network.reach, &(eqnn_graph_opts){ .cell = f->cell });
    eqnn_tensor *r = eqnn_edge_vectors(pos, g);
    eqnn_recording(c, 1);
    eqnn_tensor *E = eqnn_sum(atom_energies(pos, eqnn_graph_vectors(g, r), s));
    eqnn_recording(c, 0);
    eqnn_tensor *slope = eqnn_grad(E, r), *W;
    W = eqnn_matmul_t(eqnn_as(r, NULL), eqnn_as(slope, NULL), 1, 0);
    const eqnn_real *by = eqnn_data(slope), *virial = eqnn_data(W);
    memset(f->force, 0, 3 * (size_t)n * sizeof *f->force);
    for (int e = 0; by && e < g->edges; e++)
        for (int k = 0; k < 3; k++) {
            f->force[3 * g->source[e] + k] -= (double)by[3 * e + k];
            f->force[3 * g->target[e] + k] += (double)by[3 * e + k];
        }
    for (int k = 0; virial && k < 9; k++) f->virial[k] = -(double)virial[k];
    f->energy = n * s->mean + eqnn_value(E);
    eqnn_reset(c);
}

/* The boxes that are listed, one after the other: edges, places, and what is to be learned. */
static eqnn_tensor *predict_items(const study *s, const int *items, int n, int learning,
                                  eqnn_tensor **force, eqnn_tensor **E_want, eqnn_tensor **F_want)
{
    size_t row = 3 * ATOMS;
    double *all = malloc((2 * row + 2) * (size_t)n * sizeof *all), *x = all;
    double *F = x + row * (size_t)n, *box = F + row * (size_t)n, *E = box + n;
    if (!all) return eqnn_fail(s->c, "no memory for %d boxes", n);
    for (int i = 0; i < n; i++) {
        memcpy(x + row * (size_t)i, s->x + row * (size_t)items[i], row * sizeof *x);
        memcpy(F + row * (size_t)i, s->force + row * (size_t)items[i], row * sizeof *F);
        box[i] = s->box[items[i]];
        E[i] = s->energy[items[i]] - ATOMS * s->mean;
    }
    *E_want = eqnn_from_double(s->c, n, 1, E);
    *F_want = eqnn_from_double(s->c, n * ATOMS, 3, F);
    eqnn_tensor *result = predict(s, box, x, n, ATOMS, learning, force);
    free(all);
    return result;
}

/* Mean absolute errors of a set: of an atom's energy, of a force's component; and of no forces. */
static void measure(study *s, int set)
{
    eqnn_average sum[3] = { 0 };
    for (int i = s->first[set]; i < s->first[set + 1] && !eqnn_error(s->c); i++) {
        eqnn_tensor *F, *E0, *F0, *E = predict_items(s, s->items + i, 1, 0, &F, &E0, &F0);
        eqnn_average_add(&sum[0], eqnn_value(eqnn_mae(E, E0)) / ATOMS, 1);
        eqnn_average_add(&sum[1], eqnn_value(eqnn_mae(F, F0)), 1);
        eqnn_average_add(&sum[2], eqnn_value(eqnn_mean(eqnn_abs(F0))), 1);
        eqnn_reset(s->c);
    }
    s->error_energy = eqnn_average_value(&sum[0]);
    s->error_force = eqnn_average_value(&sum[1]);
    s->size = eqnn_average_value(&sum[2]);
}

static void train(study *s)
{
    eqnn_ctx *c = s->c;
    eqnn_run_opts o = s->run;
    const int *items;
    eqnn_tensor *F, *E0, *F0;
    o.items = s->items + s->first[TRAIN], o.batch = s->batch;
    o.path = eqnn_path_in(c, s->out, "silicon.safetensors");
    eqnn_mark mark = eqnn_mark_make(c); /* weights come into being at a first look */
    eqnn_rewind(mark, predict_items(s, o.items, 1, 1, &F, &E0, &F0));
    eqnn_run *run = eqnn_run_make(c, "network", s->count[TRAIN], &o);
    describe(s);
    eqnn_adam *adam = eqnn_adam_make(c, &(eqnn_adam_opts){ .rate = s->rate, .clip = 100 });
    eqnn_schedule schedule = { .kind = EQNN_COSINE, .rate = s->rate, .warmup = 10000, .overlap = 1,
                               .least = 1e-3 * s->rate };
    for (int n; (n = eqnn_run_next(run, &items)) >= 0;) {
        if (n > 0) {
            eqnn_adam_rate(adam, eqnn_run_rate(run, &schedule));
            eqnn_tensor *E = predict_items(s, items, n, 1, &F, &E0, &F0);
            eqnn_tensor *loss = eqnn_add(eqnn_mse(F, F0),
                                         eqnn_scale(eqnn_mse(E, E0), 100. / (ATOMS * ATOMS)));
            double value = eqnn_value(loss);
            eqnn_backward(loss);
            eqnn_adam_step(adam);
            eqnn_reset(c);
            eqnn_run_step(run, value, n);
            eqnn_run_show(run, "loss %.3g, best valid %.3g eV/A", eqnn_average_value(&run->loss),
                          run->best);
        } else {
            measure(s, VALID);
            eqnn_run_look(run, s->error_force);
        }
    }
    eqnn_run_best(run);
    eqnn_run_free(run);
}

/* ------------------------------------------------------------------------------------------------
   What comes out
   ---------------------------------------------------------------------------------------------- */

typedef struct outcome {
    double potential, kelvin, pressure, drift, pace;
    int lists, ghosts;
} outcome;

/* How much energies of an atom and forces change when a warm crystal is cut into other numbers of
   domains, and when periodic images take the place of ghosts. */
static void compare_domains(const study *s, const simulation *warm)
{
    eqnn_ctx *c = s->c;
    double most_energy = 0, most_force = 0, size = 0;
    simulation one;
    if (!start_simulation(&one, s, &network, c, s->cells, 1, 1)) return;
    memcpy(one.x, warm->x, 3 * (size_t)one.n * sizeof *one.x);
    if (find_forces(&one)) {
        eqnn_tensor *F, *E = predict(s, &one.box, one.x, 1, one.n, 0, &F);
        double periodic = one.n * s->mean + eqnn_value(E);
        const double energy[2] = { warm->energy, periodic };
        for (int k = 0; k < 2; k++)
            most_energy = fmax(most_energy, fabs(energy[k] - one.energy) / one.n);
        for (int k = 0; k < 3 * one.n && !eqnn_error(c); k++) {
            double f = one.force[k];
            most_force = fmax(most_force, fabs(f - warm->force[k]));
            most_force = fmax(most_force, fabs(f - eqnn_at(F, k / 3, k % 3)));
            size = fmax(size, fabs(f));
        }
    }
    printf("A warm crystal of %d atoms in 1 domain, in %d, and without ghosts: energies of an\n"
           "atom differ by %.1e eV, forces by %.1e eV/A, the largest of which is %.2g.\n", one.n,
           s->domains, most_energy, most_force, size);
    if (!(most_force <= 1e-4 * (1 + size)))
        eqnn_fail(c, "forces depend on how the box is cut: by %g of %g eV/A", most_force, size);
    eqnn_reset(c);
    end_simulation(&one);
}

/* The virial, which is -dE/d(log box), beside the difference of two energies. */
static void compare_pressure(simulation *m)
{
    const double h = 2e-3, virial = m->virial, box = m->box, old = 3 * m->n;
    double E[2], volume = 3 * box * box * box / gigapascal;
    for (int k = 0; k < 2; k++) {
        double scale = exp(k ? h : -h) * box / m->box;
        for (int i = 0; i < old; i++) m->x[i] *= scale;
        set_box(m, scale * m->box);
        find_forces(m);
        E[k] = m->energy;
    }
    double by_force = virial / volume, by_energy = -(E[1] - E[0]) / (2 * h) / volume;
    printf("%s: pressure without motion %.4f GPa, by energies of two volumes %.4f GPa.\n",
           m->pair->name, by_force, by_energy);
    if (!(fabs(by_force - by_energy) <= .02 * (1 + fabs(by_energy))))
        eqnn_fail(m->s->c, "the pressure is not the slope of the energy");
}

/* The last places and forces of a motion, for programs that draw or compare (extended xyz: eV,
   angstrom): first of the truth, then of the network. */
static void write_frame(const simulation *m)
{
    eqnn_ctx *c = m->s->c;
    const char *path = eqnn_path_in(c, m->s->out, "motion.xyz");
    FILE *f = *m->s->out ? fopen(path, m->pair->compute == learned ? "a" : "w") : NULL;
    if (f) {
        fprintf(f, "%d\nLattice=\"%.15g 0 0 0 %.15g 0 0 0 %.15g\" energy=%.15g forces_of=\"%s\" "
                "Properties=species:S:1:pos:R:3:forces:R:3 pbc=\"T T T\"\n", m->n, m->box, m->box,
                m->box, m->energy, m->pair->name);
        for (int i = 0; i < m->n; i++) {
            const double *x = m->x + 3 * i, *F = m->force + 3 * i;
            fprintf(f, "Si %.15g %.15g %.15g %.15g %.15g %.15g\n", x[0], x[1], x[2], F[0], F[1],
                    F[2]);
        }
    }
    if (*m->s->out && (!f || ferror(f) + fclose(f))) eqnn_fail(c, "cannot write '%s'", path);
}

/* The crystal with velocities v, left alone; means of the second half. drift: the slope of the line
   that fits the total energy best, eV an atom and ps. */
static outcome simulate(const study *s, const pair_style *pair, const double *v, eqnn_csv *log)
{
    outcome o = { 0 };
    simulation m;
    double begun = eqnn_clock(), tt = 0, tE = 0, start = 0;
    int half = s->md / 2;
    if (start_simulation(&m, s, pair, s->c, s->cells, s->domains, 1)) {
        memcpy(m.v, v, 3 * (size_t)m.n * sizeof *v);
        find_forces(&m);
    }
    for (int i = 0; i < s->md && !eqnn_error(s->c) && !eqnn_interrupted(); i++) {
        double kinetic = move(&m), volume = m.box * m.box * m.box;
        double kelvin = kinetic / (1.5 * (m.n - 1) * boltzmann), t = i - half - .5 * (s->md - half);
        double pressure = (2 * kinetic + m.virial) / (3 * volume) * gigapascal;
        if (i == half) start = kinetic + m.energy;
        if (i >= half) {
            o.potential += m.energy / m.n / (s->md - half);
            o.kelvin += kelvin / (s->md - half), o.pressure += pressure / (s->md - half);
            tt += t * t, tE += t * (kinetic + m.energy - start);
        }
        if (i % (s->md / 500 + 1)) continue;
        const double row[] = { i * s->dt, kelvin, pressure, m.energy / m.n,
                               (kinetic + m.energy) / m.n };
        eqnn_csv_row(log, pair->name, 5, row);
    }
    o.pace = (eqnn_clock() - begun) / s->md;
    if (!s->md) o.kelvin = o.pressure = o.potential = o.pace = NAN;
    o.drift = tt > 0 ? tE / tt / m.n / s->dt * 1000 : NAN;
    o.lists = m.lists;
    for (int k = 0; k < m.domains; k++) o.ghosts += m.domain[k].all - m.domain[k].own;
    if (!eqnn_error(s->c)) write_frame(&m);
    if (pair->compute == learned && !eqnn_error(s->c)) compare_domains(s, &m);
    if (!eqnn_error(s->c)) compare_pressure(&m);
    end_simulation(&m);
    return o;
}

static void print_outcomes(const study *s, const outcome *o)
{
    const pair_style *pair[2] = { &stillinger_weber, &network };
    eqnn_table *t = eqnn_table_make(s->c, "forces of|K|GPa|eV an atom|drift, meV an atom and ps|"
                                          "ms a step|lists|ghosts");
    printf("\n%d atoms, %d steps of %.3g fs, %d domains; means of the second half:\n\n",
           8 * s->cells * s->cells * s->cells, s->md, s->dt, s->domains);
    for (int i = 0; i < 2; i++) {
        eqnn_table_cell(t, "%s", pair[i]->name);
        eqnn_table_number(t, "%.1f", o[i].kelvin);
        eqnn_table_number(t, "%.3f", o[i].pressure);
        eqnn_table_number(t, "%.4f", o[i].potential);
        eqnn_table_number(t, "%.3f", 1e3 * o[i].drift);
        eqnn_table_number(t, "%.3g", 1e3 * o[i].pace);
        eqnn_table_number(t, "%.0f", o[i].lists);
        eqnn_table_number(t, "%.0f", o[i].ghosts);
    }
    eqnn_table_print(t, stdout);
    eqnn_table_free(t);
}

static void draw(const study *s)
{
    static const char *const what[4] = { "Temperature, K", "Pressure, GPa",
                                         "Potential energy, eV an atom",
                                         "Total energy, eV an atom" };
    eqnn_plot *panel[4];
    for (int j = 0; j < 4; j++) {
        panel[j] = eqnn_plot_make(s->c, &(eqnn_plot_opts){ .title = what[j], .x_label = "fs",
                                                           .width = 420, .height = 300 });
        for (int i = 0; i < 2; i++)
            eqnn_plot_csv(panel[j], eqnn_path_in(s->c, s->out, "motion.csv"),
                          i ? network.name : stillinger_weber.name, 1, 2 + j, NULL);
    }
    eqnn_plots_save(s->c, eqnn_path_in(s->c, s->out, "motion.svg"), panel, 4, 2);
    for (int j = 0; j < 4; j++) eqnn_plot_free(panel[j]);
}

/* Both pair styles, from the same velocities: half of their temperature goes into the springs. */
static void simulate_both(const study *s, outcome o[2], eqnn_csv *log)
{
    int n = 8 * s->cells * s->cells * s->cells;
    double *v = NULL;
    if (room(s->c, &v, n, 3 * sizeof *v)) {
        warm_up(s->c, "motion", 2 * s->kelvin, n, v);
        o[0] = simulate(s, &stillinger_weber, v, log);
        o[1] = simulate(s, &network, v, log);
    }
    free(v);
}

static void run_all(study *s)
{
    outcome o[2];
    eqnn_csv *log = NULL;
    if (!generate(s)) return;
    if (*s->out && eqnn_make_folder(s->c, s->out)) {
        log = eqnn_csv_open(s->c, eqnn_path_in(s->c, s->out, "motion.csv"),
                            "forces,fs,kelvin,GPa,potential_eV,total_eV", 0);
        if (!s->run.resume) eqnn_run_forget(eqnn_path_in(s->c, s->out, "silicon.safetensors"));
    }
    train(s);
    measure(s, TEST);
    if (!eqnn_error(s->c) && !eqnn_interrupted()) {
        printf("%lld weights, %d boxes of %d atoms: energies of an atom are %.2g meV wrong,\n"
               "forces %.3g meV/A, where they are %.0f meV/A on average.\n",
               (long long)eqnn_parameter_size(s->c), s->count[TRAIN], ATOMS,
               1e3 * s->error_energy, 1e3 * s->error_force, 1e3 * s->size);
        if (*s->serve) ipi_serve(s->c, s->serve, answer, s);
        else simulate_both(s, o, log);
    }
    eqnn_csv_close(log);
    if (eqnn_interrupted() && !eqnn_error(s->c))
        printf("Interrupted%s.\n", *s->out ? "; the same command with --resume continues" : "");
    if (eqnn_error(s->c) || eqnn_interrupted() || *s->serve) return;
    print_outcomes(s, o);
    if (!*s->out) return;
    draw(s);
    printf("\nThe model (silicon.best.safetensors), and of the motion a table, a picture and the\n"
           "last forces, are in %s.\n", s->out);
}

/* ------------------------------------------------------------------------------------------------
   The program
   ---------------------------------------------------------------------------------------------- */

static const eqnn_option options[] = {
    { "n-train", "200", "boxes of 64 atoms to learn from" },
    { "n-valid", "20", "that choose the weights" },
    { "n-test", "20", "to test" },
    { "hidden", "16x0e+8x1o+8x2e", "irreps between messages" },
    { "num-layers", "1", "with gates; messages are passed once more" },
    { "lr", "1e-2", "rate of Adam" },
    { "bs", "2", "boxes in a batch" },
    { "minutes", "2", "of training; with --epochs: no limit" },
    { "epochs", "100", "passes over the boxes, in the place of --minutes" },
    { "evals", "10", "how often to look at the boxes that choose" },
    { "cells", "4", "the simulation has 8 cells^3 atoms" },
    { "domains", "2", "it is cut into, each for a thread" },
    { "kelvin", "600", "its temperature" },
    { "md", "1000", "its steps" },
    { "dt", "1", "of a step, fs" },
    { "skin", ".6", "how much farther lists reach than forces, angstrom" },
    { "serve", "", "forces for ASE, i-PI, .. that listen at HOST:PORT or unix:NAME" },
    { "out", "build/silicon", "folder for the model, a table and a picture; empty: none" },
    { NULL, NULL, NULL }
};

/* What --resume needs to be told as before. */
static const char repeated[] = "n-train,n-valid,n-test,hidden,num-layers,lr,bs,dt,seed";

static void understand(study *s, eqnn_args *a)
{
    s->hidden = eqnn_args_text(a, "hidden");
    s->serve = eqnn_args_text(a, "serve");
    s->out = eqnn_args_text(a, "out");
    s->run = eqnn_args_run(a, repeated);
    s->count[TRAIN] = eqnn_args_int(a, "n-train", 1, 100000);
    s->count[VALID] = eqnn_args_int(a, "n-valid", 1, 100000);
    s->count[TEST] = eqnn_args_int(a, "n-test", 1, 100000);
    s->layers = eqnn_args_int(a, "num-layers", 0, 10);
    network.passes = s->layers + 1;
    if (s->layers == 0) s->layers = -1; /* 0 would be the default */
    s->rate = eqnn_args_within(a, "lr", 1e-12, 1);
    s->batch = eqnn_args_int(a, "bs", 1, 1000);
    s->cells = eqnn_args_int(a, "cells", 1, MOST_CELLS);
    s->domains = eqnn_args_int(a, "domains", 1, MOST_DOMAINS);
    s->kelvin = eqnn_args_within(a, "kelvin", 0, 1e5);
    s->md = eqnn_args_int(a, "md", 0, 100000000);
    s->dt = eqnn_args_within(a, "dt", 1e-3, 10);
    s->skin = eqnn_args_within(a, "skin", 0, 10);
    s->context = eqnn_args_context(a);
}

int main(int argc, char **argv)
{
    study s = { 0 };
    eqnn_args a;
    int go = eqnn_args_read(&a, argc, argv, "Moves silicon by a network's forces.", options);
    if (go > 0) understand(&s, &a);
    if ((s.c = eqnn_program_start(&a, &s.context)) != NULL) run_all(&s);
    free(s.box), free(s.x), free(s.force), free(s.energy), free(s.items);
    return eqnn_program_end(&a, s.c);
}
