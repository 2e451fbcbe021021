/* md17.c - a molecule's energies and forces, learned from examples, and motion by them

   Quantum chemistry takes minutes or hours for one configuration of a molecule; a network that has
   seen some hundred of them gives energy and forces of others in milliseconds. It gives a single
   invariant number, the energy; forces are minus its gradient, so they turn with the molecule, and
   a simulation by them keeps the total energy.

      --model equiformer_v1   attention of irreps (Liao and Smidt 2023, arXiv:2206.11990)
      --model gated           gated convolutions of irreps (eqnn_network)
      --model distances       the same of numbers only, which see how far atoms are, not where
      --widths 32,16,8        channels of degrees 0, 1 and 2
      --published             equiformer_v1 as large as the paper has it; without it the models are
                              small enough for minutes on a core

   You will see mean absolute errors of energies and forces (of each component) of configurations
   never seen, beside those of the mean energy and no forces, and what the paper reports of the
   same molecule in MD17 (other energies, 950 to learn from, 1500 epochs); how much predictions for
   turned molecules differ from turned predictions; and, with --md, how the total energy drifts in
   a simulation by the learned forces. It teaches how a gradient in the loss is learned from. Three
   minutes of a core and 850 configurations of ethanol by coupled clusters (sgdml.org) brought gated
   to 2.0 meV and 9.6 meV/A, equiformer_v1 to 3.8 and 15.6, two minutes distances to 2.5 and 13.5;
   the mean energy and no forces are 172 and 881 away.

   --data is extended xyz, or npz as sGDML and rMD17 have it (compressed: build with -DEQNN_ZLIB and
   -lz), or a folder: then the first such file whose name has "train" in it. --test is a file or
   folder ("test") of its own; without it a part of --data is held out. --demo needs no data: a
   chain of carbon, moved by springs and Lennard-Jones forces.

      cc -O2 -fopenmp -DEQNN_ZLIB -I. examples/md17.c -lm -lz -o md17
      ./md17 --data rmd17_aspirin --test rmd17_aspirin --minutes 60

   With --serve the trained network moves the molecule in ASE, i-PI and other codes that speak
   i-PI's protocol (ipi.h).

   The loss is the paper's: the mean distance of forces times --force-weight, plus the mean absolute
   error of energies times --energy-weight, in the same unit of energy. Adam's rate rises to --lr in
   a hundredth of the run and falls to nothing as a cosine. Weights that were best on the validation
   configurations are tested. Each batch is cut into --parts, which different threads work on.

   "make test" runs it with
      --demo --model equiformer_v1,gated,distances --n-train 8 --n-valid 2 --n-test 4 --epochs 1
      --widths 4,2 --md 4 */

#define _DEFAULT_SOURCE 1 /* sockets, which -std=c99 hides */
#define EQNN_IMPLEMENTATION
#include "eqnn_data.h"
#include "ipi.h"
#ifndef _WIN32
#include <dirent.h>
#endif

/* ------------------------------------------------------------------------------------------------
   What is studied
   ---------------------------------------------------------------------------------------------- */

enum { TEST, VALID, TRAIN, SETS };
enum { MOST_RUNS = 8, MOST_PARTS = 64, MOST_ATOMS = 1000, MOST_TURNED = 100, HEADS = 4 };

static const double boltzmann = 8.617333e-5; /* eV/K                                              */
static const double unit_of_time = 10.180506; /* fs: angstrom sqrt(amu / eV)                      */

typedef struct errors { double energy, force; } errors; /* eV and eV/A                            */

typedef struct study {
    /* asked for */
    const char *models, *data, *test, *out, *unit, *widths, *serve;
    int demo, parts, published, steps, batch, layers, count[SETS];
    eqnn_run_opts run;                       /* epochs, minutes, looks, resume                   */
    double rate, decay, energy_weight, force_weight, radius, dt, kelvin;
    uint64_t data_seed;
    eqnn_opts context;
    /* the data: one molecule, in eV and angstrom */
    eqnn_ctx *c;
    int frames, atoms, kinds;                /* kinds: elements that occur                        */
    double *x, *force, *energy;              /* [frames][atoms][3], the same, [frames]            */
    int charge[MOST_ATOMS];                  /* of the nuclei                                     */
    int *kind, *example;                     /* [batch][atoms]: which element; whose atom         */
    int *items, first[SETS + 1];             /* which frames are in which set                     */
    double mean, scale;                      /* of energies; of forces (root mean square)         */
    double neighbours;                       /* of an atom                                        */
    char formula[64];
    errors plain;                            /* of the mean energy and no forces                  */
} study;

/* What a network gets: molecules one after the other. */
typedef struct batch {
    eqnn_ctx *c;
    eqnn_tensor *pos;                        /* [molecules*atoms,3]                               */
    eqnn_ints *kinds;
    const eqnn_graph *g;
} batch;

/* What a worker needs for its part of a batch. */
typedef struct part { double *x, *force, *energy, loss; size_t memory; } part;

typedef struct run run;

/* Where nothing is asked for. */
typedef struct sizes { const char *widths; int layers; double rate; } sizes;

/* A model gives a number for each molecule, [molecules,1]; blind: it knows distances only. */
typedef struct network {
    const char *name;
    int blind;
    eqnn_tensor *(*energy)(const run *r, const batch *b);
    sizes size[2];                           /* for minutes; with --published                     */
} network;

struct run {
    const study *s;
    const network *net;
    sizes size;
    eqnn_ctx *c;                             /* of the weights                                    */
    eqnn_parts *workers;
    eqnn_run *run;
    part part[MOST_PARTS];
    /* a batch */
    const int *items;
    int n, learning, turned;
    double *energy[2], *force[2];            /* predictions for all frames: as they are; turned   */
    /* what came out */
    errors test, turn;
    double drift, wander, pace, heat;        /* of a simulation, see simulate()                   */
};

/* Where the numbers of a frame begin in arrays [frames][atoms][3]. */
static size_t place(const study *s, int frame)
{
    return 3 * (size_t)s->atoms * (size_t)frame;
}

/* ------------------------------------------------------------------------------------------------
   The models
   ---------------------------------------------------------------------------------------------- */

/* Widths "32,16" as "32x0e+16x1o", or divided by share, not below 1; all even: "32x0e+16x1e". */
static const char *irreps_of(const run *r, const batch *b, int share, int even)
{
    const char *text = "", *widths = r->size.widths, *word;
    for (int l = 0; eqnn_next_word(&widths, &word) > 0 && (l == 0 || !r->net->blind); l++) {
        int n = (int)strtol(word, NULL, 10), own = n < share ? 1 : n / share;
        text = eqnn_format(b->c, "%s%s%dx%d%c", text, l ? "+" : "", own, l,
                           l % 2 && !even ? 'o' : 'e');
    }
    return text;
}

static eqnn_tensor *attend(const run *r, const batch *b)
{
    eqnn_equiformer_v1_opts o;
    if (!eqnn_equiformer_v1_preset(b->c, "md17", &o)) return NULL;
    o.node = irreps_of(r, b, 1, 1);
    o.head = irreps_of(r, b, HEADS, 1);
    o.feature = eqnn_format(b->c, "%dx0e", 4 * (int)strtol(r->size.widths, NULL, 10));
    o.layers = r->size.layers, o.heads = HEADS, o.radius = r->s->radius;
    /* motion needs energies without jumps, as the paper's has where atoms come into reach */
    if (!r->s->published) o.envelope = o.radius, o.norm_floor = 1;
    return eqnn_equiformer_v1(b->kinds, b->pos, b->g, "net", &o);
}

static eqnn_tensor *convolve(const run *r, const batch *b)
{
    const study *s = r->s;
    int n = (int)strtol(r->size.widths, NULL, 10);
    const eqnn_irreps *hidden = eqnn_irreps_make(b->c, irreps_of(r, b, 1, 0));
    int lmax = hidden ? eqnn_irreps_lmax(hidden) : 0;
    eqnn_network_opts o = { .hidden = hidden ? hidden->name : NULL, .out = "1x0e", .reduce = 1,
                            .layers = r->size.layers, .lmax = lmax ? lmax : -1, .nodes = s->atoms,
                            .radius = s->radius, .neighbours = s->neighbours,
                            .radial_neurons = 64 };
    eqnn_tensor *x = eqnn_embedding(b->c, b->kinds, "element", s->kinds, n, NULL);
    x = eqnn_as(x, eqnn_irreps_make(b->c, eqnn_format(b->c, "%dx0e", n)));
    return eqnn_network(x, NULL, b->pos, b->g, "net", &o);
}

static const network networks[] = {
    { "equiformer_v1", 0, attend, { { "16,8,4", 2, 3e-3 }, { "128,64,32", 6, 5e-4 } } },
    { "gated", 0, convolve, { { "32,16,8", 3, 5e-3 }, { "32,16,8", 3, 5e-3 } } },
    { "distances", 1, convolve, { { "64", 3, 5e-3 }, { "64", 3, 5e-3 } } },
    { NULL, 0, NULL, { { NULL, 0, 0 } } }
};

/* The errors that Liao and Smidt report of MD17 (lmax 2), in meV and meV/A. */
static const struct reported { const char *formula; double energy, force; } papers[] = {
    { "C9H8O4", 5.3, 7.2 }, { "C6H6", 2.2, 6.6 },   { "C2H6O", 2.2, 3.1 }, { "C3H4O2", 3.3, 5.8 },
    { "C10H8", 3.7, 2.1 },  { "C7H6O3", 4.5, 4.1 }, { "C7H8", 3.8, 2.1 },
    { "C4H4N2O2", 4.3, 3.3 }
};

/* ------------------------------------------------------------------------------------------------
   Data
   ---------------------------------------------------------------------------------------------- */

static int ends(const char *name, const char *end)
{
    size_t n = strlen(name), m = strlen(end);
    return n > m && !strcmp(name + n - m, end);
}

/* A file; or of a folder the first npz or xyz file, by name, that has the word in its name. */
static const char *file_in(study *s, const char *path, const char *word)
{
#ifndef _WIN32
    DIR *folder = opendir(path);
    const char *best = NULL;
    if (!folder) return path;
    for (struct dirent *e; (e = readdir(folder)) != NULL;)
        if ((ends(e->d_name, ".npz") || ends(e->d_name, ".xyz")) && strstr(e->d_name, word) &&
            (!best || strcmp(e->d_name, best) < 0)) best = eqnn_format(s->c, "%s", e->d_name);
    closedir(folder);
    if (best) return eqnn_path_in(s->c, path, "%s", best);
    eqnn_fail(s->c, "there is no .npz or .xyz file with '%s' in its name in %.200s", word, path);
    return NULL;
#else
    (void)s, (void)word;
    return path;
#endif
}

/* Room for so many frames; 0 and an error when there is none. */
static int make_room(study *s, int frames)
{
    double *x = realloc(s->x, place(s, frames) * sizeof *x + 1);
    if (x) s->x = x;
    double *force = realloc(s->force, place(s, frames) * sizeof *force + 1);
    if (force) s->force = force;
    double *energy = realloc(s->energy, (size_t)frames * sizeof *energy + 1);
    if (energy) s->energy = energy;
    if (!x || !force || !energy) eqnn_fail(s->c, "no memory for %d configurations", frames);
    return x && force && energy;
}

/* eV of a unit of energy; 0: there is no such unit. */
static double unit_of(const char *name)
{
    static const struct { const char *name; double eV; } units[] = {
        { "eV", 1 }, { "kcal/mol", .0433641153 }, { "kJ/mol", .0103642697 },
        { "hartree", 27.2113862 }
    };
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++)
        if (!strcmp(name, units[i].name)) return units[i].eV;
    return 0;
}

/* Has a frame an energy and forces? */
static int usable(const eqnn_frames *m, int i)
{
    int good = isfinite(m->energy[i]);
    for (int k = 3 * m->first[i]; k < 3 * m->first[i + 1]; k++)
        good = good && isfinite(m->force[k]);
    return good;
}

/* Is a frame what this program knows: the molecule that came first, alone? */
static int fits(study *s, const eqnn_frames *m, int i, const char *path)
{
    const int *charge = m->charge + m->first[i];
    int n = m->first[i + 1] - m->first[i], periodic = 0;
    if (!s->frames && n <= MOST_ATOMS)
        memcpy(s->charge, charge, (size_t)(s->atoms = n) * sizeof *charge);
    for (int k = 9 * i; k < 9 * i + 9; k++) periodic = periodic || m->cell[k] != 0;
    if (periodic) eqnn_fail(s->c, "%.200s: frame %d is periodic", path, i + 1);
    if (n > MOST_ATOMS)
        eqnn_fail(s->c, "%.200s: frame %d has more than %d atoms", path, i + 1, MOST_ATOMS);
    if (n != s->atoms || memcmp(charge, s->charge, (size_t)n * sizeof *charge))
        eqnn_fail(s->c, "%.200s: frame %d has other atoms than the first", path, i + 1);
    return !eqnn_error(s->c);
}

/* The frames of a file that have an energy and forces, behind those that are there. */
static void add_frames(study *s, const char *path)
{
    const char *unit = *s->unit ? s->unit : path && ends(path, ".npz") ? "kcal/mol" : "eV";
    eqnn_frames *m = path ? eqnn_frames_open(s->c, path) : NULL;
    double eV = unit_of(unit);
    int old = s->frames;
    if (eV == 0) eqnn_fail(s->c, "--energy-unit: eV, kcal/mol, kJ/mol, hartree, not %.40s", unit);
    for (int i = 0; m && i < m->count && !eqnn_error(s->c); i++) {
        if (!usable(m, i) || !fits(s, m, i, path)) continue;
        if (s->frames == old && !make_room(s, old + m->count)) break;
        size_t to = place(s, s->frames), from = 3 * (size_t)m->first[i], row = place(s, 1);
        memcpy(s->x + to, m->pos + from, row * sizeof *s->x);
        for (size_t k = 0; k < row; k++) s->force[to + k] = eV * m->force[from + k];
        s->energy[s->frames++] = eV * m->energy[i];
    }
    if (m && !eqnn_error(s->c) && s->frames == old)
        eqnn_fail(s->c, "%.200s: no configuration has an energy and forces", path);
    if (m && !eqnn_error(s->c))
        printf("%s: %d configurations with energies and forces (%s), %d without.\n", path,
               s->frames - old, unit, m->count - (s->frames - old));
    eqnn_frames_free(m);
}

/* A chain of six atoms at kT = .05 eV: springs of 20 eV/A^2 along and 3 eV between them, and
   Lennard-Jones forces. */
static void grow(study *s, int count)
{
    eqnn_chain_opts o = { .beads = 6, .frames = count, .spatial = 1, .centred = 1, .k = 20,
                          .r0 = 1.5, .ka = 3, .epsilon = .005, .sigma = 2.5, .temperature = .05,
                          .settle = 100, .seed = s->data_seed + 1 };
    s->atoms = o.beads;
    for (int a = 0; a < s->atoms; a++) s->charge[a] = 6;
    if (!make_room(s, count) || !eqnn_chain(s->c, &o, s->x, NULL)) return;
    for (; s->frames < count; s->frames++) {
        const double *x = s->x + place(s, s->frames);
        s->energy[s->frames] = eqnn_chain_energy(&o, x, NULL);
        eqnn_chain_force(&o, x, s->force + place(s, s->frames));
    }
}

/* How many frames go into which set where it is not said: 950 to learn from, as published, or what
   a tenth for the test leaves of fewer. Then the frames of own, --data's, are dealt out, and those
   behind them, --test's. */
static void deal(study *s, int own)
{
    int *n = s->count, others = s->frames - own, left = own - n[VALID];
    int rest = left - (n[TRAIN] ? n[TRAIN] : 950);
    if (!n[TEST]) n[TEST] = others ? others : n[TRAIN] || rest > own / 10 ? rest : own / 10;
    if (!others) left -= n[TEST];
    if (!n[TRAIN]) n[TRAIN] = left < 950 ? left : 950;
    if (n[TEST] < 1 || n[TRAIN] < 1 || n[TRAIN] > left || (others && n[TEST] > others)) {
        eqnn_fail(s->c, "%d configurations are too few for --n-train %d, --n-valid %d, --n-test %d",
                  s->frames, n[TRAIN], n[VALID], n[TEST] > 0 ? n[TEST] : 1);
        return;
    }
    s->items = malloc(((size_t)(n[TEST] + n[VALID] + n[TRAIN])) * sizeof *s->items);
    if (!s->items) { eqnn_fail(s->c, "no memory"); return; }
    int apart = others ? 1 : 0; /* the test set is dealt out by itself */
    if (apart) eqnn_split_counts(s->c, s->data_seed, others, n, 1, s->items, s->first);
    for (int i = 0; apart && i < n[TEST]; i++) s->items[i] += own;
    int from = apart ? n[TEST] : 0;
    eqnn_split_counts(s->c, s->data_seed, own, n + apart, SETS - apart, s->items + from,
                      s->first + apart);
    for (int k = apart; k <= SETS; k++) s->first[k] += from;
}

/* Atomic mass units; 0: not known here. */
static double mass_of(int charge)
{
    static const double mass[19] = { 0, 1.008, 4.0026, 6.94, 9.0122, 10.81, 12.011, 14.007, 15.999,
                                     18.998, 20.180, 22.990, 24.305, 26.982, 28.085, 30.974, 32.06,
                                     35.45, 39.95 };
    return charge < 19 ? mass[charge] : charge == 35 ? 79.904 : charge == 53 ? 126.90 : 0;
}

/* Which elements there are; the formula: carbon, hydrogen, the others by their charges. */
static void find_elements(study *s)
{
    int n[119] = { 0 }, kind[119];
    size_t at = 0;
    for (int a = 0; a < s->atoms; a++) n[s->charge[a]]++;
    for (int z = 1; z < 119; z++) {
        kind[z] = n[z] ? s->kinds++ : -1;
        if (n[z] && s->steps && mass_of(z) == 0)
            eqnn_fail(s->c, "the mass of element %d is not known here: --md 0", z);
    }
    for (int i = -1; i < 119; i++) {
        int z = i < 0 ? 6 : i == 0 ? 1 : i;
        char symbol[3];
        if (!n[z] || (i > 0 && (z == 6 || z == 1)) || at + 16 > sizeof s->formula) continue;
        at += (size_t)sprintf(s->formula + at, "%s", eqnn_element_symbol(z, symbol));
        if (n[z] > 1) at += (size_t)sprintf(s->formula + at, "%d", n[z]);
    }
    size_t all = (size_t)s->batch * (size_t)s->atoms;
    s->kind = malloc(all * sizeof(int));
    s->example = malloc(all * sizeof(int));
    for (size_t i = 0; s->kind && s->example && i < all; i++) {
        s->kind[i] = kind[s->charge[i % (size_t)s->atoms]];
        s->example[i] = (int)(i / (size_t)s->atoms);
    }
    if (!s->kind || !s->example) eqnn_fail(s->c, "no memory");
}

/* Mean energy, size of the forces, and how many atoms an atom sees, of what is learned from. */
static void measure_data(study *s)
{
    double square = 0, pairs = 0, all = s->count[TRAIN];
    for (int i = s->first[TRAIN]; i < s->first[TRAIN + 1]; i++) {
        const double *x = s->x + place(s, s->items[i]), *f = s->force + place(s, s->items[i]);
        s->mean += s->energy[s->items[i]] / all;
        for (int k = 0; k < 3 * s->atoms; k++) square += f[k] * f[k];
        for (int a = 0; a < s->atoms; a++)
            for (int b = 0; b < s->atoms; b++) {
                double d = 0;
                for (int k = 0; k < 3; k++) d += pow(x[3 * a + k] - x[3 * b + k], 2);
                pairs += a != b && d < s->radius * s->radius;
            }
    }
    s->scale = square > 0 ? sqrt(square / (3 * all * s->atoms)) : 1;
    s->neighbours = fmax(1, pairs / (all * s->atoms));
}

/* Mean absolute errors of a set; NULL: of the mean energy and no forces. */
static errors measure(const study *s, int set, const double *energy, const double *force)
{
    errors sum = { 0, 0 };
    double n = s->count[set];
    for (int i = s->first[set]; i < s->first[set + 1]; i++) {
        int frame = s->items[i];
        sum.energy += fabs(s->energy[frame] - (energy ? energy[frame] : s->mean)) / n;
        for (size_t k = place(s, frame); k < place(s, frame + 1); k++)
            sum.force += fabs(s->force[k] - (force ? force[k] : 0)) / (3 * n * s->atoms);
    }
    return sum;
}

static int prepare(study *s)
{
    int own, *n = s->count;
    if (s->demo) grow(s, (n[TRAIN] ? n[TRAIN] : 400) + n[VALID] + (n[TEST] ? n[TEST] : 100));
    else if (*s->data) add_frames(s, file_in(s, s->data, "train"));
    else eqnn_fail(s->c, "no --data: an .xyz or .npz file with energies and forces, such as those "
                         "of MD17 at http://www.sgdml.org; --demo needs none");
    own = s->frames;
    if (*s->test && !eqnn_error(s->c)) add_frames(s, file_in(s, s->test, "test"));
    if (!eqnn_error(s->c)) deal(s, own);
    if (!eqnn_error(s->c)) find_elements(s);
    if (eqnn_error(s->c)) return 0;
    measure_data(s);
    s->plain = measure(s, TEST, NULL, NULL);
    return 1;
}

/* ------------------------------------------------------------------------------------------------
   Training
   ---------------------------------------------------------------------------------------------- */

/* Energies [n,1] and forces [n*atoms,3] of n molecules, in units of s->scale. What is not learned
   from does not record how forces came about. */
static eqnn_tensor *predict(const run *r, eqnn_ctx *c, int n, const double *x, int learning,
                            eqnn_tensor **force)
{
    const study *s = r->s;
    eqnn_graph_opts o = { .example = s->example, .examples = n };
    batch b = { .c = c, .pos = eqnn_from_double(c, n * s->atoms, 3, x) };
    b.kinds = eqnn_ints_make(c, n * s->atoms, s->kind, s->kinds, 0);
    b.g = eqnn_radius_graph(b.pos, s->radius, &o);
    eqnn_recording(c, 1);
    eqnn_tensor *E = r->net->energy(r, &b), *sum = eqnn_sum(E);
    eqnn_recording(c, learning);
    *force = eqnn_neg(eqnn_grad(sum, b.pos));
    return E;
}

/* The distance of forces, and of energies, as the loss weighs them. A part of the batch knows its
   share of the means only. */
static eqnn_tensor *loss_of(const run *r, const part *p, int n, eqnn_tensor *E, eqnn_tensor *F)
{
    const study *s = r->s;
    eqnn_tensor *E_want = eqnn_from_double(eqnn_context(E), n, 1, p->energy);
    eqnn_tensor *F_want = eqnn_from_double(eqnn_context(E), n * s->atoms, 3, p->force);
    eqnn_tensor *E_loss = eqnn_scale(eqnn_mae(E, E_want), s->energy_weight);
    eqnn_tensor *F_loss = eqnn_scale(eqnn_mean(eqnn_norm(eqnn_sub(F, F_want))), s->force_weight);
    return eqnn_scale(eqnn_add(E_loss, F_loss), (double)n / r->n);
}

/* A worker's part of a batch. Turned molecules are turned about and moved, each in its own way. */
static void work(eqnn_ctx *c, int number, int parts, void *user)
{
    run *r = user;
    const study *s = r->s;
    part *p = &r->part[number];
    int first = r->n * number / parts, n = r->n * (number + 1) / parts - first, row = 3 * s->atoms;
    const int *items = r->items + first;
    eqnn_tensor *F, *E;
    p->loss = 0;
    if (n == 0) return;
    for (int i = 0; i < n; i++) {
        memcpy(p->x + row * i, s->x + place(s, items[i]), (size_t)row * sizeof *p->x);
        if (r->turned) eqnn_augment(c, 1, (uint64_t)items[i], 1, 1, s->atoms, 3, p->x + row * i);
        p->energy[i] = (s->energy[items[i]] - s->mean) / s->scale;
        for (int k = 0; k < row; k++)
            p->force[row * i + k] = s->force[place(s, items[i]) + (size_t)k] / s->scale;
    }
    E = predict(r, c, n, p->x, r->learning, &F);
    if (r->learning && F) {
        eqnn_tensor *loss = loss_of(r, p, n, E, F);
        p->loss = eqnn_value(loss);
        eqnn_backward(loss);
    }
    for (int i = 0; F && !r->learning && i < n; i++) {
        double *to = r->force[r->turned] + place(s, items[i]);
        r->energy[r->turned][items[i]] = s->mean + s->scale * eqnn_at(E, i, 0);
        for (int k = 0; k < row; k++) to[k] = s->scale * eqnn_at(F, i * s->atoms + k / 3, k % 3);
    }
    eqnn_memory use = eqnn_memory_use(c);
    p->memory = use.step_peak + use.lasting;
}

/* The loss of a batch, or predictions for it. */
static double run_parts(run *r, const int *items, int n, int learning, int turned)
{
    double loss = 0;
    r->items = items, r->n = n, r->learning = learning, r->turned = turned;
    eqnn_training(r->c, learning);
    eqnn_parts_run(r->workers, work, r);
    for (int k = 0; k < r->s->parts; k++) loss += r->part[k].loss;
    return loss;
}

static void evaluate(run *r, int set, int most, int turned)
{
    int end = r->s->first[set + 1];
    if (end - r->s->first[set] > most) end = r->s->first[set] + most;
    for (int i = r->s->first[set]; i < end && !eqnn_error(r->c) && !eqnn_interrupted();) {
        int n = end - i < r->s->batch ? end - i : r->s->batch;
        run_parts(r, r->s->items + i, n, 0, turned);
        eqnn_reset(r->c);
        i += n;
    }
}

static void step(run *r, eqnn_adam *adam, const int *items, int n)
{
    eqnn_schedule schedule = { .kind = EQNN_COSINE, .rate = r->size.rate, .overlap = 1,
                               .warmup = 10000, .least = 1e-3 * r->size.rate };
    eqnn_adam_rate(adam, eqnn_run_rate(r->run, &schedule));
    double loss = run_parts(r, items, n, 1, 0);
    eqnn_adam_step(adam);
    eqnn_reset(r->c);
    eqnn_run_step(r->run, 1e3 * r->s->scale * loss, n);
    eqnn_run_show(r->run, "loss %.4g, best valid %.4g", eqnn_average_value(&r->run->loss),
                  r->run->best);
}

/* Looks at the validation frames; the weights with the smallest error there are kept. */
static void look(run *r, eqnn_csv *log)
{
    const study *s = r->s;
    evaluate(r, VALID, s->count[VALID], 0);
    errors e = measure(s, VALID, r->energy[0], r->force[0]);
    double value = 1e3 * (s->energy_weight * e.energy + s->force_weight * e.force);
    if (!eqnn_run_look(r->run, s->count[VALID] ? value : NAN)) return;
    const double row[] = { eqnn_run_epochs(r->run), r->run->seconds / 60,
                           eqnn_average_value(&r->run->loss), 1e3 * e.energy, 1e3 * e.force };
    eqnn_csv_row(log, r->net->name, 5, row);
}

static void train(run *r, eqnn_csv *log)
{
    const study *s = r->s;
    const int *items;
    eqnn_run_opts o = s->run;
    o.items = s->items + s->first[TRAIN], o.batch = s->batch;
    o.path = eqnn_path_in(s->c, s->out, "%s.safetensors", r->net->name);
    r->run = eqnn_run_make(r->c, r->net->name, s->count[TRAIN], &o);
    eqnn_adam *adam = eqnn_adam_make(r->c, &(eqnn_adam_opts){ .rate = r->size.rate,
                                                             .decay = s->decay, .clip = 100 });
    for (int n; (n = eqnn_run_next(r->run, &items)) >= 0;) {
        if (n > 0) step(r, adam, items, n);
        else look(r, log);
    }
    eqnn_run_best(r->run);
}

/* Predictions for the test set, and for turned molecules of it; the largest differences between
   the latter and turned predictions. */
static void test(run *r)
{
    const study *s = r->s;
    int most = s->count[TEST] < MOST_TURNED ? s->count[TEST] : MOST_TURNED;
    evaluate(r, TEST, s->count[TEST], 0);
    evaluate(r, TEST, most, 1);
    r->test = measure(s, TEST, r->energy[0], r->force[0]);
    for (int i = 0; i < most && !eqnn_error(r->c); i++) {
        int frame = s->items[s->first[TEST] + i];
        double turned[3 * MOST_ATOMS];
        memcpy(turned, r->force[0] + place(s, frame), 3 * (size_t)s->atoms * sizeof *turned);
        eqnn_augment(r->c, 1, (uint64_t)frame, 1, 0, s->atoms, 3, turned);
        r->turn.energy = fmax(r->turn.energy, fabs(r->energy[1][frame] - r->energy[0][frame]));
        for (int k = 0; k < 3 * s->atoms; k++) {
            double error = fabs(turned[k] - r->force[1][place(s, frame) + (size_t)k]);
            r->turn.force = fmax(r->turn.force, error);
        }
    }
}

/* ------------------------------------------------------------------------------------------------
   Motion by the learned forces
   ---------------------------------------------------------------------------------------------- */

/* Energy (eV, from the mean on) and forces (eV/A) of one molecule. */
static double field(const run *r, const double *x, double *force)
{
    eqnn_tensor *F, *E = predict(r, r->c, 1, x, 0, &F);
    for (int k = 0; F && k < 3 * r->s->atoms; k++)
        force[k] = r->s->scale * eqnn_at(F, k / 3, k % 3);
    double value = F ? r->s->scale * eqnn_value(E) : NAN;
    eqnn_reset(r->c);
    return value;
}

/* Velocities of the temperature, without motion of the whole. */
static void warm_up(const run *r, const double *mass, double *v)
{
    double whole = 0, drift[3] = { 0 };
    int n = r->s->atoms;
    eqnn_random(r->s->c, "velocities", 1, 3 * (size_t)n, v);
    for (int k = 0; k < 3 * n; k++) {
        v[k] *= sqrt(boltzmann * r->s->kelvin / mass[k / 3]);
        drift[k % 3] += mass[k / 3] * v[k];
    }
    for (int i = 0; i < n; i++) whole += mass[i];
    for (int k = 0; k < 3 * n; k++) v[k] -= drift[k % 3] / whole;
}

/* One step of velocity Verlet; returns the energies and changes F to that of the new places. */
static double move(const run *r, const double *mass, double *x, double *v, double *F, double *moves)
{
    int n = 3 * r->s->atoms;
    double dt = r->s->dt / unit_of_time;
    for (int k = 0; k < n; k++) x[k] += dt * (v[k] += .5 * dt * F[k] / mass[k / 3]);
    double potential = field(r, x, F);
    *moves = 0;
    for (int k = 0; k < n; k++) {
        v[k] += .5 * dt * F[k] / mass[k / 3];
        *moves += .5 * mass[k / 3] * v[k] * v[k];
    }
    return potential;
}

/* From the first test configuration on. Of the total energy: the slope of the line that fits it
   best (drift: eV an atom and a step), and the deviation from that line (wander: eV an atom). NaN
   where the molecule flew apart: an atom has 10 eV. */
static void simulate(run *r, eqnn_csv *log)
{
    const study *s = r->s;
    static double x[3 * MOST_ATOMS], v[3 * MOST_ATOMS], F[3 * MOST_ATOMS], mass[MOST_ATOMS];
    double heat = 0, begun = eqnn_clock(), tt = 0, tE = 0, EE = 0, E_sum = 0, start = 0, kinetic;
    for (int i = 0; i < s->atoms; i++) mass[i] = mass_of(s->charge[i]);
    eqnn_training(r->c, 0);
    memcpy(x, s->x + place(s, s->items[s->first[TEST]]), 3 * (size_t)s->atoms * sizeof *x);
    warm_up(r, mass, v);
    field(r, x, F);
    for (int i = 0; i < s->steps && !eqnn_error(r->c) && !eqnn_interrupted(); i++) {
        double potential = move(r, mass, x, v, F, &kinetic), t = i - .5 * (s->steps - 1);
        if (i == 0) start = kinetic + potential;
        double E = kinetic + potential - start;
        if (!(kinetic < 10 * s->atoms)) {
            r->drift = NAN;
            return;
        }
        heat += kinetic, tt += t * t, tE += t * E, EE += E * E, E_sum += E;
        if (i % (s->steps / 500 + 1)) continue;
        const double row[] = { i * s->dt, kinetic, potential, E };
        eqnn_csv_row(log, r->net->name, 4, row);
    }
    double slope = tt > 0 ? tE / tt : 0, rest = EE - E_sum * E_sum / s->steps - slope * tE;
    r->pace = (eqnn_clock() - begun) / s->steps;
    r->drift = slope / s->atoms;
    r->wander = sqrt(fmax(0, rest) / s->steps) / s->atoms;
    r->heat = s->atoms > 1 ? heat / s->steps / (1.5 * (s->atoms - 1) * boltzmann) : 0;
}

/* A frame of another code's (ipi.h): the molecule of the data, its atoms in the same order; a cell
   it does not see. */
static void answer(eqnn_ctx *c, ipi_frame *f, void *user)
{
    const run *r = user;
    if (f->atoms != r->s->atoms) {
        eqnn_fail(c, "a frame of %d atoms; the molecule has %d", f->atoms, r->s->atoms);
        return;
    }
    f->energy = r->s->mean + field(r, f->x, f->force);
    for (int k = 0; k < 9; k++) f->virial[k] = 0;
    for (int i = 0; i < f->atoms; i++)
        for (int k = 0; k < 9; k++) f->virial[k] += f->x[3 * i + k / 3] * f->force[3 * i + k % 3];
}

/* ------------------------------------------------------------------------------------------------
   A row of the table: one model
   ---------------------------------------------------------------------------------------------- */

/* Memory, workers, and weights by a first look at a molecule, which leaves nothing else behind. */
static int start(run *r)
{
    const study *s = r->s;
    eqnn_tensor *F;
    size_t n = (size_t)s->batch, room = place(s, s->batch) + n;
    int good = (r->c = eqnn_make(&s->context)) != NULL;
    for (int k = 0; k < s->parts; k++) {
        part *p = &r->part[k];
        good = good && (p->x = malloc((room + place(s, s->batch)) * sizeof *p->x)) != NULL;
        if (good) p->force = p->x + place(s, s->batch), p->energy = p->x + 2 * place(s, s->batch);
    }
    for (int k = 0; k < 2; k++) {
        r->energy[k] = calloc((size_t)s->frames, sizeof **r->energy);
        r->force[k] = calloc(place(s, s->frames), sizeof **r->force);
        good = good && r->energy[k] && r->force[k];
    }
    if (!good) return eqnn_fail(s->c, "no memory for %s", r->net->name), 0;
    eqnn_mark mark = eqnn_mark_make(r->c);
    eqnn_rewind(mark, predict(r, r->c, 1, s->x, 1, &F));
    r->workers = eqnn_parts_make(r->c, s->parts, s->context.threads);
    return !eqnn_error(r->c);
}

static void finish(run *r)
{
    eqnn_run_free(r->run);
    eqnn_parts_free(r->workers);
    eqnn_free(r->c);
    for (int k = 0; k < MOST_PARTS; k++) free(r->part[k].x);
    for (int k = 0; k < 2; k++) free(r->energy[k]), free(r->force[k]);
}

/* Trains, tests the best weights, lets the molecule move. 0 on an error, or when Ctrl-C came. */
static int study_one(run *r, eqnn_csv *log, eqnn_csv *motion)
{
    const study *s = r->s;
    if (start(r)) train(r, log);
    if (r->c && !eqnn_error(r->c) && !eqnn_interrupted()) test(r);
    if (r->c && !eqnn_error(r->c) && !eqnn_interrupted() && s->steps) simulate(r, motion);
    if (r->c && !eqnn_error(r->c) && !eqnn_interrupted() && *s->serve)
        ipi_serve(r->c, s->serve, answer, r);
    if (r->c && eqnn_error(r->c)) eqnn_fail(s->c, "%s: %s", r->net->name, eqnn_error(r->c));
    return !eqnn_error(s->c) && !eqnn_interrupted();
}

/* ------------------------------------------------------------------------------------------------
   Reports
   ---------------------------------------------------------------------------------------------- */

static const struct reported *paper(const study *s, const run *r)
{
    for (size_t i = 0; i < sizeof papers / sizeof papers[0] && !s->demo; i++)
        if (r->net->energy == attend && !strcmp(papers[i].formula, s->formula)) return &papers[i];
    return NULL;
}

static void print_summary(const study *s, const run *r, int n)
{
    eqnn_table *t = eqnn_table_make(s->c, "model|weights|epochs|minutes|ms/step|MB|energy, meV|"
                                          "forces, meV/A|paper, meV|meV/A");
    printf("\n%s: mean absolute errors of %d configurations, %d to learn from:\n\n", s->formula,
           s->count[TEST], s->count[TRAIN]);
    for (int i = -1; i < n; i++) {
        const run *q = i < 0 ? NULL : &r[i];
        const struct reported *p = q ? paper(s, q) : NULL;
        double memory = 0;
        for (int k = 0; q && k < s->parts; k++) memory += (double)q->part[k].memory / 1e6;
        eqnn_table_cell(t, "%s", q ? q->net->name : "mean energy, no forces");
        eqnn_table_number(t, "%.0f", q ? (double)eqnn_parameter_size(q->c) : NAN);
        eqnn_table_number(t, "%.1f", q ? eqnn_run_epochs(q->run) : NAN);
        eqnn_table_number(t, "%.1f", q ? q->run->seconds / 60 : NAN);
        eqnn_table_number(t, "%.3g", q ? 1e3 * eqnn_run_pace(q->run) : NAN);
        eqnn_table_number(t, "%.0f", q ? memory : NAN);
        eqnn_table_number(t, "%.4g", 1e3 * (q ? q->test : s->plain).energy);
        eqnn_table_number(t, "%.4g", 1e3 * (q ? q->test : s->plain).force);
        eqnn_table_number(t, "%.1f", p ? p->energy : NAN);
        eqnn_table_number(t, "%.1f", p ? p->force : NAN);
    }
    eqnn_table_print(t, stdout);
    eqnn_table_free(t);
}

/* The numbers that prove the point. */
static void print_proof(const study *s, const run *r)
{
    printf("\n%s: when molecules turn, energies change by %.2g meV at most, and forces turn with\n"
           "them to %.2g meV/A; their components are %.0f meV/A on average.\n", r->net->name,
           1e3 * r->turn.energy, 1e3 * r->turn.force, 1e3 * s->plain.force);
    if (s->steps && isnan(r->drift))
        printf("The molecule flew apart in the simulation.\n");
    else if (s->steps)
        printf("%d steps of %.3g fs at %.0f K, %.2g ms each: the total energy drifts by %.2g meV\n"
               "an atom and ps (%.2g meV a step), and strays from that by %.2g meV an atom.\n",
               s->steps, s->dt, r->heat, 1e3 * r->pace, 1e6 * r->drift / s->dt, 1e3 * r->drift,
               1e3 * r->wander);
}

/* Predicted against true components of forces of the test set; at most so many dots. */
static void draw_forces(const study *s, const run *r, int n)
{
    enum { DOTS = 3000 };
    static double truth[DOTS], ours[DOTS];
    eqnn_plot *panel[MOST_RUNS] = { NULL };
    size_t all = place(s, s->count[TEST]), dots = all < DOTS ? all : DOTS, row = place(s, 1);
    for (int i = 0; i < n; i++) {
        double most = 0;
        for (size_t d = 0; d < dots; d++) {
            size_t j = d * all / dots, k = place(s, s->items[j / row]) + j % row;
            truth[d] = s->force[k], ours[d] = r[i].force[0][k];
            most = fmax(most, fabs(truth[d]));
        }
        double line[2] = { -most, most };
        panel[i] = eqnn_plot_make(s->c, &(eqnn_plot_opts){ .title = r[i].net->name, .width = 420,
            .height = 420, .x_label = "true force, eV/A", .y_label = "predicted" });
        eqnn_plot_add(panel[i], NULL, 2, line, line, &(eqnn_series_opts){ .colour = "#999999" });
        eqnn_plot_add(panel[i], NULL, (int)dots, truth, ours,
                      &(eqnn_series_opts){ .points = 1, .size = 1.3, .opacity = .4 });
    }
    eqnn_plots_save(s->c, eqnn_path_in(s->c, s->out, "forces.svg"), panel, n, n < 4 ? n : 3);
    for (int i = 0; i < n; i++) eqnn_plot_free(panel[i]);
}

/* Errors while training, and the total energy of a simulation. */
static void draw_lines(const study *s, const run *r, int n)
{
    static const char *const titles[3] = { "Forces, validation", "Energies, validation",
                                           "Total energy in a simulation" };
    static const char *const units[3] = { "meV/A", "meV", "eV" };
    eqnn_plot *panel[3];
    int count = s->steps ? 3 : 2;
    for (int j = 0; j < count; j++) {
        panel[j] = eqnn_plot_make(s->c, &(eqnn_plot_opts){ .title = titles[j], .log_y = j < 2,
            .x_label = j < 2 ? "minutes" : "fs", .y_label = units[j], .width = 420 });
        for (int i = 0; i < n; i++)
            eqnn_plot_csv(panel[j], eqnn_path_in(s->c, s->out, j < 2 ? "log.csv" : "motion.csv"),
                          r[i].net->name, j < 2 ? 2 : 1, j < 2 ? 5 - j : 4, NULL);
    }
    eqnn_plots_save(s->c, eqnn_path_in(s->c, s->out, "errors.svg"), panel, count, count);
    for (int j = 0; j < count; j++) eqnn_plot_free(panel[j]);
}

static void report(const study *s, const run *r, int n)
{
    print_summary(s, r, n);
    for (int i = 0; i < n; i++) print_proof(s, &r[i]);
    if (!*s->out) return;
    draw_forces(s, r, n);
    draw_lines(s, r, n);
    if (!eqnn_error(s->c)) printf("\nPictures, logs and models are in %s.\n", s->out);
}

/* ------------------------------------------------------------------------------------------------
   The program
   ---------------------------------------------------------------------------------------------- */

static int list_runs(study *s, run *r)
{
    const char *list = s->models, *word;
    int n = 0;
    for (int length; (length = eqnn_next_word(&list, &word)) > 0 && !eqnn_error(s->c);) {
        const network *net = networks;
        while (net->name && (strncmp(word, net->name, (size_t)length) || net->name[length])) net++;
        if (!net->name || n == MOST_RUNS) {
            eqnn_fail(s->c, "--model: there is no '%.*s', or there are too many", length, word);
            break;
        }
        r[n].s = s;
        r[n].net = net;
        r[n].test = (errors){ NAN, NAN };
        r[n].size = net->size[s->published];
        if (*s->widths) r[n].size.widths = s->widths;
        if (s->layers) r[n].size.layers = s->layers;
        if (s->rate > 0) r[n].size.rate = s->rate;
        n++;
    }
    if (*s->serve && n > 1) eqnn_fail(s->c, "--serve: of one model; --model names %d", n);
    return n;
}

static void run_all(study *s)
{
    static run r[MOST_RUNS];
    eqnn_csv *log = NULL, *motion = NULL;
    int finished = 0, n = list_runs(s, r);
    if (!eqnn_error(s->c) && prepare(s) && *s->out && eqnn_make_folder(s->c, s->out)) {
        log = eqnn_csv_open(s->c, eqnn_path_in(s->c, s->out, "log.csv"),
                            "model,epoch,minutes,loss,energy_meV,forces_meV_A", s->run.resume);
        motion = eqnn_csv_open(s->c, eqnn_path_in(s->c, s->out, "motion.csv"),
                               "model,fs,kinetic_eV,potential_eV,total_eV", 0);
    }
    for (int i = 0; i < n && *s->out && !s->run.resume && !eqnn_error(s->c); i++)
        eqnn_run_forget(eqnn_path_in(s->c, s->out, "%s.safetensors", r[i].net->name));
    while (finished < n && !eqnn_error(s->c) && study_one(&r[finished], log, motion)) finished++;
    eqnn_csv_close(log);
    eqnn_csv_close(motion);
    if (finished == n && n > 0 && !eqnn_error(s->c)) report(s, r, n);
    else if (eqnn_interrupted() && !eqnn_error(s->c))
        printf("Interrupted%s.\n", *s->out ? "; the same command with --resume continues" : "");
    for (int i = 0; i < n; i++) finish(&r[i]);
}

static const eqnn_option options[] = {
    { "model", "equiformer_v1,gated", "equiformer_v1, gated, distances, or a list" },
    { "data", "", "extended xyz, npz (sGDML, rMD17), or a folder of them" },
    { "test", "", "the same, to test on; empty: a part of --data" },
    { "demo", "off", "generated configurations of a chain in their place" },
    { "energy-unit", "", "of the data: eV, kcal/mol, kJ/mol, hartree [npz kcal/mol, xyz eV]" },
    { "n-train", "0", "configurations to learn from; 0: 950, or what is left" },
    { "n-valid", "50", "that choose the weights" },
    { "n-test", "0", "to test; 0: a tenth, or what is left; all of --test" },
    { "widths", "", "channels of degrees 0, 1, ... [16,8,4; 32,16,8; 64]" },
    { "num-layers", "0", "0: what suits the model [2; 3; 3]" },
    { "published", "off", "equiformer_v1 as large as the paper has it" },
    { "radius", "5", "how far atoms see, angstrom" },
    { "lr", "0", "rate of Adam; 0: what suits the model [3e-3; 5e-3; 5e-3]" },
    { "decay", "1e-6", "of the weights" },
    { "bs", "4", "configurations in a batch; published: 8" },
    { "energy-weight", "1", "in the loss" },
    { "force-weight", "20", "in the loss" },
    { "minutes", "10", "of training each model; with --epochs: no limit" },
    { "epochs", "1500", "passes over the training configurations, in the place of --minutes" },
    { "parts", "2", "a batch is cut into, each for a thread" },
    { "evals", "20", "how often to look at the validation configurations" },
    { "md", "1000", "steps of a simulation by the learned forces; 0: none" },
    { "dt", ".5", "of a step, fs" },
    { "temperature", "300", "of its first velocities, kelvin" },
    { "data-seed", "0", "of the split; --seed is that of the weights" },
    { "serve", "", "forces for ASE, i-PI, .. that listen at HOST:PORT or unix:NAME" },
    { "out", "build/md17", "folder for tables, pictures and models; empty: none" },
    { NULL, NULL, NULL }
};

/* What --resume needs to be told as before. */
static const char repeated[] =
    "demo,energy-unit,n-train,n-valid,n-test,widths,num-layers,published,radius,lr,decay,bs,"
    "energy-weight,force-weight,data-seed,seed";

static void understand(study *s, eqnn_args *a)
{
    s->models = eqnn_args_text(a, "model");
    s->data = eqnn_args_text(a, "data");
    s->test = eqnn_args_text(a, "test");
    s->unit = eqnn_args_text(a, "energy-unit");
    s->widths = eqnn_args_text(a, "widths");
    s->serve = eqnn_args_text(a, "serve");
    s->out = eqnn_args_text(a, "out");
    s->demo = eqnn_args_on(a, "demo");
    s->published = eqnn_args_on(a, "published");
    s->run = eqnn_args_run(a, repeated);
    s->count[TRAIN] = eqnn_args_int(a, "n-train", 0, 1000000);
    s->count[VALID] = eqnn_args_int(a, "n-valid", 0, 1000000);
    s->count[TEST] = eqnn_args_int(a, "n-test", 0, 1000000);
    s->layers = eqnn_args_int(a, "num-layers", 0, 100);
    s->batch = eqnn_args_int(a, "bs", 1, 10000);
    s->parts = eqnn_args_int(a, "parts", 1, MOST_PARTS);
    s->steps = eqnn_args_int(a, "md", 0, 100000000);
    s->radius = eqnn_args_within(a, "radius", .1, 1e6);
    s->rate = eqnn_args_within(a, "lr", 0, 1e3);
    s->decay = eqnn_args_within(a, "decay", 0, 1e3);
    s->energy_weight = eqnn_args_within(a, "energy-weight", 0, 1e9);
    s->force_weight = eqnn_args_within(a, "force-weight", 0, 1e9);
    s->dt = eqnn_args_within(a, "dt", 1e-6, 1e3);
    s->kelvin = eqnn_args_within(a, "temperature", 0, 1e6);
    for (const char *list = s->widths, *word; eqnn_next_word(&list, &word) > 0 && !a->error[0];)
        if (strtol(word, NULL, 10) < 1 || strtol(word, NULL, 10) > 10000)
            eqnn_args_fail(a, "option --widths: '%.80s' is no list of numbers like 32,16,8",
                           s->widths);
    s->data_seed = (uint64_t)eqnn_args_int(a, "data-seed", 0, 2147483647);
    s->context = eqnn_args_context(a);
}

int main(int argc, char **argv)
{
    study s = { 0 };
    eqnn_args a;
    int go = eqnn_args_read(&a, argc, argv, "Learns energies and forces of a molecule.", options);
    if (go > 0) understand(&s, &a);
    if ((s.c = eqnn_program_start(&a, &s.context)) != NULL) run_all(&s);
    free(s.x);
    free(s.force);
    free(s.energy);
    free(s.kind);
    free(s.example);
    free(s.items);
    return eqnn_program_end(&a, s.c);
}
