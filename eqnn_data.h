/* eqnn_data.h - v0.1 - data for eqnn.h: files, generators, batches, scores, progress and plots -
   licence at the end of this file

   A complete program (build: cc -O2 first.c -lm), which draws how a chain of twelve beads folds:

      #define EQNN_IMPLEMENTATION
      #include "eqnn_data.h"

      int main(void)
      {
          static double pos[200 * 12 * 3];
          eqnn_ctx *c = eqnn_make(NULL);
          eqnn_chain_opts o = {0};
          o.frames = 200;
          eqnn_chain(c, &o, pos, NULL);
          eqnn_plot_trajectories(c, "chain.svg", 200, 12, pos, pos, "a run", "the same run");
          puts(eqnn_error(c) ? eqnn_error(c) : "look at chain.svg");
          eqnn_free(c);
          return 0;
      }

   OPTIONS
      EQNN_IMPLEMENTATION   emits the code, in one C or C++ file; default declarations only
      EQNN_STATIC           makes every function private to the file; default external
      EQNN_ZLIB             where the implementation is: npz entries that numpy compressed
                            (savez_compressed) and IDX files that gzip packed are read through
                            zlib, link with -lz; default stored entries only (savez), the others
                            give an error that says so
      WASI needs -D_WASI_EMULATED_SIGNAL and -lwasi-emulated-signal, for Ctrl-C.

   IS        what a training program needs around the library: data from files (numpy's npy and npz,
             IDX images as MNIST's, QM9's molecules, energies and forces of configurations, proteins
             in PDB files) or made on the spot (chains, functions with a symmetry, cubes, systems of
             particles, constellations, protein backbones, turned images), splits and batches,
             scores summed in double, options, a progress bar, tables, CSV logs, training runs that
             can be stopped and resumed, and SVG pictures.
   IS NOT    a plotting package or a data base. Files are read whole. Numbers become double, so
             integers beyond 2^53 are rounded. Strings, dates, complex numbers and structures
             in npz files are listed but not read.

   CONVENTIONS
      Objects here (eqnn_npz, eqnn_batches, eqnn_table, eqnn_csv, eqnn_plot) live in malloc's memory
      until their _free or _close, both of which take NULL. They use the context for errors only;
      its step and its arenas are left alone. A failed call returns NULL or 0 and the context holds
      the sentence; where NULL or 0 is an answer, its comment says so. Coordinates are rows x, y, z;
      time is counted in frames.

   CONTENTS   1 files   2 generators   3 batches   4 metrics   5 terminal   6 runs
              7 plots
              jump to a section: search ">>batches" */

#include "eqnn.h"

#ifndef EQNN_DATA_H
#define EQNN_DATA_H

/* ------------------------------------------------------------------------------------------------
   1 >>files   numpy's files: npy (one array) and npz (a zip archive of them); images in IDX files;
               the molecules of QM9; energies and forces of configurations; proteins.
   ---------------------------------------------------------------------------------------------- */

typedef struct eqnn_array {
    const char *name;      /* as in the archive, without ".npy"; "arr" for a bare npy file       */
    const char *dtype;     /* numpy's: "<f8", "<f4", "<i4", "|u1", ...; writing: default "<f8"   */
    int dims;              /* 0 for a single number, at most 8                                   */
    int64_t shape[8];
    size_t count;          /* numbers in all, the product of shape; writing: not looked at       */
    const double *values;  /* in C order (last index fastest); NULL: not numbers, not read       */
} eqnn_array;

typedef struct eqnn_npz eqnn_npz;
/* Reads an npz or npy file whole: versions 1 to 3; f2 f4 f8 i1..i8 u1..u8 b1, either byte order, C
   or Fortran order; checksums are checked. NULL and an error when it is malformed in any way; what
   else an npz file holds, neither an array nor called .npy, is passed over. */
EQNN_API eqnn_npz *eqnn_npz_open(eqnn_ctx *c, const char *path);
EQNN_API eqnn_npz *eqnn_npz_parse(eqnn_ctx *c, const void *bytes, size_t size);
EQNN_API void eqnn_npz_close(eqnn_npz *z);
EQNN_API int eqnn_npz_count(const eqnn_npz *z);
EQNN_API const eqnn_array *eqnn_npz_at(const eqnn_npz *z, int i);
/* The array of that name, or NULL: without an error, or with one when it is needed with that many
   dimensions (dims; negative: any). */
EQNN_API const eqnn_array *eqnn_npz_find(const eqnn_npz *z, const char *name);
EQNN_API const eqnn_array *eqnn_npz_need(const eqnn_npz *z, const char *name, int dims);

/* Writes n arrays with n names, uncompressed, little endian, C order; beside the old file, then
   renamed over it. 1 when done. The npy form writes one array without its name. */
EQNN_API int eqnn_npz_save(eqnn_ctx *c, const char *path, const eqnn_array *arrays, int n);
EQNN_API int eqnn_npy_save(eqnn_ctx *c, const char *path, const eqnn_array *array);

/* Arrays of the IDX format, as MNIST has them: two zero bytes, one that says the type (8 u1, 9 i1,
   11 i2, 12 i4, 13 f4, 14 f8), the number of dimensions, each dimension in four bytes, then the
   numbers, all highest byte first, in C order. The file must be exactly as long as it says. One
   that gzip packed is read through zlib where EQNN_ZLIB is defined. */
typedef struct eqnn_idx {
    int dims;                   /* at most 8                        */
    int64_t shape[8];
    size_t count;               /* numbers in all                   */
    char kind;                  /* 'u', 'i' or 'f' ...              */
    int bytes;                  /* ... of so many bytes             */
    const unsigned char *data;  /* as in the file                   */
} eqnn_idx;
EQNN_API eqnn_idx *eqnn_idx_open(eqnn_ctx *c, const char *path);
EQNN_API eqnn_idx *eqnn_idx_parse(eqnn_ctx *c, const void *bytes, size_t size);
EQNN_API void eqnn_idx_close(eqnn_idx *x);
EQNN_API double eqnn_idx_value(const eqnn_idx *x, size_t i); /* NaN beyond the end */
/* Numbers first, first + 1, ..., at most n; how many there were. */
EQNN_API size_t eqnn_idx_values(const eqnn_idx *x, size_t first, size_t n, double *out);

/* Molecules one after the other, those of i are atoms first[i] to first[i+1] - 1. */
enum { EQNN_QM9_TARGETS = 15 };
typedef struct eqnn_molecules {
    int count, atoms;
    int *first;      /* [count+1]                                                            */
    int *number;     /* [count]: in the data set, from 1                                     */
    int *charge;     /* [atoms]: of the nucleus                                              */
    double *pos;     /* [atoms][3], angstrom                                                 */
    double *target;  /* [count][15], as published: A B C (GHz), mu (debye), alpha (bohr^3),
                        homo lumo gap (hartree), r2 (bohr^2), zpve U0 U H G (hartree),
                        Cv (cal / mol K)                                                     */
} eqnn_molecules;
/* QM9 (R. Ramakrishnan, P. O. Dral, M. Rupp, O. A. von Lilienfeld, Sci. Data 1, 140022, 2014): its
   .xyz files, one or many behind each other, or the tar archive of them; or an npz file with the
   arrays index, n_atoms, z [n][most], pos [n][most][3], targets [n][15]. */
EQNN_API eqnn_molecules *eqnn_qm9_open(eqnn_ctx *c, const char *path);
EQNN_API eqnn_molecules *eqnn_qm9_parse(eqnn_ctx *c, const void *bytes, size_t size);
EQNN_API void eqnn_molecules_free(eqnn_molecules *m);
/* Leaves those out whose number is among the n given, such as the 3,054 of QM9 whose bonds changed
   when they were optimised (a list beside the data): how many they were. */
EQNN_API int eqnn_molecules_drop(eqnn_molecules *m, const int *numbers, int n);
/* One of the twelve tasks, alpha gap homo lumo mu Cv G H r2 U U0 zpve, as it is learned: less the
   same of the free atoms (zpve, U0, U, H, G, Cv), energies in eV, zpve in meV. out [count]; *unit
   (or NULL) gets its name. 1 when done, 0 when there is no such task or a number is not finite. */
EQNN_API int eqnn_qm9_target(eqnn_ctx *c, const eqnn_molecules *m, const char *task, double *out,
                             const char **unit);
/* Configurations of atoms with their energies and forces, one after the other, in the units of the
   file: what force fields are learned from. */
typedef struct eqnn_frames {
    int count, atoms;
    int *first;      /* [count+1]: atoms of frame i are first[i] .. first[i+1] - 1               */
    int *charge;     /* [atoms]: of the nucleus                                                  */
    double *pos;     /* [atoms][3]                                                               */
    double *force;   /* [atoms][3]; NaN: the file has none                                       */
    double *energy;  /* [count]; NaN: the file has none                                          */
    double *cell;    /* [count][3][3] lattice vectors, one a row; zeros: not periodic along it   */
} eqnn_frames;
/* Extended xyz: for each frame a line with the number of atoms, a line of pairs key=value, a line
   for each atom. Of the pairs, whose values may stand in quotes or brackets, these are read:
   Properties names all columns (species or Z, pos, forces; without it: element, x, y, z, and more
   that is not read), energy, Lattice, and pbc, three of T and F, which takes directions out of it.
   REF_energy, force and REF_forces are taken too, but not two columns for one. Or an npz file as
   sGDML and rMD17 have it, with R or coords [n][atoms][3], z or nuclear_charges [atoms] or
   [n][atoms], and E or energies [n], F or forces where there are any. A number that is not finite
   is an error. */
EQNN_API eqnn_frames *eqnn_frames_open(eqnn_ctx *c, const char *path);
EQNN_API eqnn_frames *eqnn_xyz_parse(eqnn_ctx *c, const void *bytes, size_t size);
EQNN_API void eqnn_frames_free(eqnn_frames *m);
/* The charge of a nucleus, 1 to 118, by its symbol, "Cl", and the other way: 0 or NULL where there
   is no such element. */
EQNN_API int eqnn_element(const char *symbol);
EQNN_API const char *eqnn_element_symbol(int charge, char text[3]); /* which is text */

/* Backbones of proteins, chains one after the other. */
typedef struct eqnn_proteins {
    int chains, residues;
    int *first;        /* [chains+1]: residues of chain i are first[i] .. first[i+1] - 1       */
    char (*name)[16];  /* [chains]: "1UBQ_A", as far as the file says; of arrays the place     */
    int *kind;         /* [residues]: place in "ACDEFGHIKLMNPQRSTVWY", 20: none of these       */
    int *number;       /* [residues]: the file's own; 0 where it has none                      */
    double *pos;       /* [residues][4][3] of N, CA, C, O, angstrom; NaN: there is no O        */
    /* what was left out: */
    int models;        /* all but the first                                                    */
    int alternates;    /* backbone atoms in a second place, or twice in the same               */
    int hetero;        /* HETATM lines that are not a residue of a chain: water, ligands       */
    int incomplete;    /* residues (or nucleotides) without N, CA or C                         */
    int broken;        /* ATOM and HETATM lines that are cut off or whose numbers are none     */
} eqnn_proteins;
/* A PDB file (wwPDB, Atomic Coordinate Entry Format 3.3), or an npz file with the arrays n_res, seq
   and coords [all residues][4][3]. Of a PDB file: ATOM lines by their columns, and HETATM lines of
   residues with N, CA and C before their chain's TER (MSE counts as M); residues differ in chain,
   number or insertion code. Where atoms have alternate locations the one with the largest sum of
   occupancies over the residue's backbone is taken, of equal ones the first, and another only for
   an atom that is not there. TER, or another letter, ends a chain. An error if nothing is left. */
EQNN_API eqnn_proteins *eqnn_protein_open(eqnn_ctx *c, const char *path);
EQNN_API eqnn_proteins *eqnn_pdb_parse(eqnn_ctx *c, const void *bytes, size_t size);
EQNN_API void eqnn_proteins_free(eqnn_proteins *m);
/* Those of b behind those of a: a new one, or NULL and an error. a may be NULL. */
EQNN_API eqnn_proteins *eqnn_proteins_join(eqnn_ctx *c, const eqnn_proteins *a,
                                           const eqnn_proteins *b);

/* What an atom is: 1, q, q^2 with q = charge / 9, in the place of its element (H C N O F), zeros
   in those of the others: out [n][15]. 1 when done. */
EQNN_API int eqnn_charge_features(eqnn_ctx *c, int n, const int *charge, double *out);

/* ------------------------------------------------------------------------------------------------
   2 >>generators   Data that needs no download: a chain of beads that obeys Newton, functions to be
                    found from examples, cubes to be solved, mechanical systems, constellations of
                    points; protein backbones; points and images in other positions.
   ---------------------------------------------------------------------------------------------- */

/* Beads of mass 1 on a string, isolated, with the potential energy

       sum over bonds (i,i+1)        k/2 (d - r0)^2
     + sum over triples (i,i+1,i+2)  ka/2 (theta - theta0)^2
     + sum over pairs |i-j| >= 2     4 epsilon ((sigma/d)^12 - (sigma/d)^6)

   and one frame as unit of time. The defaults are those of a published trajectory of 12 beads in a
   plane (A. D. White, LiveCoMS 3, 1499, 2021), whose file is not free; the numbers were fitted to
   it. [1] In a plane straight angles are crossed, where this energy has a cusp, and a short bond
   turns fast: 16 steps keep the energy to about 1 % in 2048 frames, fewer than 4 may blow up. */
typedef struct eqnn_chain_opts {
    int beads;           /* default 12                                                            */
    int frames;          /* recorded; default 2048                                                */
    int substeps;        /* of velocity Verlet in a frame; default 16 [1]                         */
    int settle;          /* frames before the first recorded one; default 300, negative: none     */
    int spatial;         /* motion in space; default in the plane z = 0                           */
    int centred;         /* centre of mass at rest in the origin; default an offset and a drift   */
    double temperature;  /* kT/m of the motion inside the chain; default 3.8e-5                   */
    double k, r0;        /* bonds; default 3.598e-3, 1/3                                          */
    double ka, theta0;   /* angles; default 1.438e-4, 2 pi / 3                                    */
    double epsilon;      /* Lennard-Jones; default 1.41e-5, negative: none                        */
    double sigma;        /* default 1/6                                                           */
    uint64_t seed;       /* default the context's                                                 */
} eqnn_chain_opts;

/* Starts from a zigzag with jitter 0.01 and hot random velocities, settles, rescales the velocities
   once to the temperature and records pos and vel (or NULL) [frames*beads, 3]. The numbers depend
   on the options and the seed only. 1 when done. */
EQNN_API int eqnn_chain(eqnn_ctx *c, const eqnn_chain_opts *opts, double *pos, double *vel);
/* Kinetic and potential energy of one frame, pos and vel [beads, 3]; vel NULL: at rest. */
EQNN_API double eqnn_chain_energy(const eqnn_chain_opts *opts, const double *pos,
                                  const double *vel);
/* Minus the gradient of the potential energy: force [beads, 3]. */
EQNN_API void eqnn_chain_force(const eqnn_chain_opts *opts, const double *pos, double *force);
/* One frame of velocity Verlet in place; force [beads, 3] is that of pos, before and after. */
EQNN_API void eqnn_chain_step(const eqnn_chain_opts *opts, double *pos, double *vel, double *force);

/* Functions to be found from examples, with the symmetry that a network may use: the regression
   tasks of EMLP (M. Finzi, M. Welling, A. G. Wilson 2021, arXiv:2104.09459).

      inertia    5 masses, 5 positions: the matrix  sum of m (|r|^2 1 - r r^T)
      o5         two vectors of R^5:  sin|a| - |b|^3/2 + a.b / |a||b|
      particle   four momenta a b c d, products of the signature (+ - - -), e.g. ab = a^T eta b:
                 y = 4 (L, M) with L = a c^T - (ac - aa) eta, M = eta b d^T eta - (bd - bb) eta,
                 as published: not symmetric in a and c, and the momenta off their shells */
typedef struct eqnn_task {
    const char *name;
    const char *rep_in, *rep_out, *group; /* as eqnn_groups.h writes them                         */
    int in, out;                          /* how many numbers                                     */
    double spread;                        /* inputs are N(0, spread^2); masses log(1 + e^N)       */
    int vector;                           /* numbers that share a scale; 0: nothing is scaled     */
    void (*target)(const double *x, double *y);
} eqnn_task;
EQNN_API const eqnn_task *eqnn_task_find(eqnn_ctx *c, const char *name);
/* Examples first..first+n-1 of a seed: x [n][in], y [n][out] or NULL. */
EQNN_API void eqnn_task_draw(const eqnn_task *t, uint64_t seed, uint64_t first, int n, double *x,
                             double *y);
EQNN_API void eqnn_task_targets(const eqnn_task *t, int n, const double *x, double *y);
/* What standardisation needs, over n examples: x is divided by scale [in], each vector's root mean
   square, which keeps the symmetry; y has mean [out] and deviation [out]. Without: 1, 0, 1. */
EQNN_API void eqnn_task_scales(const eqnn_task *t, int n, const double *x, const double *y,
                               double *scale, double *mean, double *deviation);

/* EMLP's toys: a cube with so many stickers on each of its 6 faces, as X [6][6*stickers] with
   X[colour][sticker] = 1. Solved; or mirrored, which no turn can reach. */
EQNN_API void eqnn_cube_state(int stickers, int mirrored, double *x);
/* x [rows][d] times a random word of so many letters in the generators [count][d][d]. */
EQNN_API int eqnn_scramble(eqnn_ctx *c, uint64_t seed, uint64_t index, int letters,
                           const double *generators, int count, int rows, int d, double *x);

/* Mechanical systems: z = (positions, momenta, constants), dz/dt = (dH/dp, -dH/dq, 0).

      springs      two unit masses in space, hung one below the other by springs from the origin,
                   z = (x1, x2, p1, p2), of EMLP:
                   H = |p1|^2/2 + |p2|^2/2 + (|x1|-1)^2/2 + (|x1-x2|-1)^2 + x1_z + x2_z
                   also conserved: the angular momentum about the vertical
      oscillator   H = (q^2 + p^2)/2

   and of n particles in a plane or in space, z = (q [n][axes], p [n][axes], constants [n][given]),
   after LieConv (M. Finzi, S. Stanton, P. Izmailov, A. G. Wilson 2020, arXiv:2002.12880):

      coupled      every pair by a spring of length 0; the constants are mass m and stiffness k:
                   H = sum |p_i|^2 / 2 m_i + sum over i < j of k_i k_j |q_i - q_j|^2
      planets      a star of mass 32, at rest in the origin when it starts, and n - 1 planets on
                   near-circular orbits, any of the n may be the star; the constant is the mass:
                   H = sum |p_i|^2 / 2 m_i - sum over i < j of  G m_i m_j / (|q_i - q_j| + 1e-8)
      moons        the same with a star of 50, heavier planets nearby, G = 0.06, and |q_i - q_j|
                   replaced by 0.15 where it is less (no force there), and no 1e-8 */
typedef struct eqnn_system eqnn_system;
struct eqnn_system {
    const char *name, *rep, *group;   /* as eqnn_groups.h writes them; rep NULL: not for EMLP  */
    int dim;                          /* of z, at most 256                                     */
    double (*energy)(const eqnn_system *s, const double *z);
    void (*field)(const eqnn_system *s, const double *z, double *dz);           /* dz/dt       */
    double (*spin)(const eqnn_system *s, const double *z);                      /* or NULL     */
    void (*start)(const eqnn_system *s, uint64_t seed, uint64_t i, double *z);  /* the i-th    */
    int particles, axes, given;       /* of particles: how many, 2 or 3, constants of each     */
    double G, star, softening, least; /* planets and moons; may be changed                     */
    int drifting;                     /* coupled, as published: momenta keep their sum [2]     */
};
/* [2] LieConv takes the mean over its 5000 systems from the momenta instead of that over the
   particles of each system; it is about 0.008, and nothing is taken away here. */
EQNN_API const eqnn_system *eqnn_system_find(eqnn_ctx *c, const char *name);
/* A system of particles into *s: 1 to 16 in a plane (axes 2) or in space (3). 1 when done. */
EQNN_API int eqnn_system_particles(eqnn_ctx *c, const char *name, int particles, int axes,
                                   eqnn_system *s);
/* z [n][m][dim] at the times [m], which rise or fall, from z0 [n][dim] at times[0]: each system by
   itself, with an error of at most tolerance times its largest coordinate a step (0: 1e-12). With a
   negative tolerance, of which LieConv's data is made by -1: so many steps of Runge's and Kutta's
   3/8 rule between two times, whatever the error. 1 when done. */
EQNN_API int eqnn_system_run(eqnn_ctx *c, const eqnn_system *s, double tolerance, int n,
                             const double *z0, const double *times, int m, double *z);

/* EMLP's training data: system i starts at random, runs for chunks * length times, dt apart, and
   one chunk of its trajectory, chosen at random, is an example. (Published: tolerance 1e-4, and in
   float. LieConv: 100 chunks, dt 5/499, tolerance -1; planets and moons 40 and 2/199.) */
typedef struct eqnn_chunk_opts {
    int length, chunks;   /* default 5, 30         */
    double dt;            /* default 0.2           */
    double tolerance;     /* default 1e-12         */
    uint64_t seed;        /* default the context's */
} eqnn_chunk_opts;
/* Those of systems first..first+n-1: z [n][length][dim] */
EQNN_API int eqnn_system_chunks(eqnn_ctx *c, const eqnn_system *s, const eqnn_chunk_opts *opts,
                                uint64_t first, int n, double *z);

/* Constellations: up to so many copies of four patterns of points in the plane, and the task to
   count each, after LieTransformer (M. Hutchinson et al. 2021, arXiv:2012.10885). Square, triangle
   and pentagon are n points (cos 2 pi k/n + 2, sin 2 pi k/n + 2), L is (1,1) (2,1) (3,1) (3,2)
   (3,3). Each is turned by an angle t, stretched by s, and moved by 24 (U, U), or absent. The
   points change places at random and each coordinate gets noise; 24 is the unit of what comes out,
   the origin in the middle.

   As published the polygons are moved by 72 / s (U, U), L by 24 / s, the coordinates are stretched
   so that the smallest of all, those of absent points included, is -1 and the largest 1, and the
   test set is the beginning of the training set. */
typedef struct eqnn_constellation_opts {
    int copies;         /* of each pattern; default 2, at most 8                             */
    int test;           /* examples that no training set has                                 */
    int published;      /* see above                                                         */
    double rotation;    /* |t| is at most so many half turns; default 0.33, negative: none   */
    double upscale;     /* s is 1 + upscale U; default 0                                     */
    double drop;        /* probability to be absent; default 0.5, negative: none             */
    double noise;       /* default 0.1, negative: none                                       */
    uint64_t seed;      /* default the context's                                             */
} eqnn_constellation_opts;
/* Examples first..first+n-1 of points = 17 copies: pos [n][points][2], present [n][points] 0 or 1,
   counts [n][4] of square, triangle, pentagon and L. 1 when done. */
EQNN_API int eqnn_constellations(eqnn_ctx *c, const eqnn_constellation_opts *opts, uint64_t first,
                                 int n, double *pos, int *present, int *counts);

/* What is drawn for an example, patterns in the order square, triangle, pentagon, L, square, ... */
enum { EQNN_CONSTELLATION_PATTERNS = 32, EQNN_CONSTELLATION_POINTS = 136 };
typedef struct eqnn_constellation_draws {
    double angle[EQNN_CONSTELLATION_PATTERNS];     /* in 0..1, as scale and shift            */
    double scale[EQNN_CONSTELLATION_PATTERNS];
    double shift[EQNN_CONSTELLATION_PATTERNS][2];
    int present[EQNN_CONSTELLATION_PATTERNS];
    int order[EQNN_CONSTELLATION_POINTS];          /* point i is the old point order[i]      */
    double noise[EQNN_CONSTELLATION_POINTS][2];    /* added                                  */
    double turn, move;                             /* of all, at the end; to both coordinates */
} eqnn_constellation_draws;
EQNN_API int eqnn_constellation(eqnn_ctx *c, const eqnn_constellation_opts *opts,
                                const eqnn_constellation_draws *draws, double *pos, int *present,
                                int *counts);
/* What a point is, without a place: its distances from the present ones, largest first, absent
   ones count as 0 and the last is left out, out [n][n-1]; or the powers' means of these distances,
   (sum over present j of d_ij^k / number of them)^(1/k) for k = 1..powers, out [n][powers]. */
EQNN_API void eqnn_point_distances(int n, const double *pos, const int *present, double *out);
EQNN_API void eqnn_point_moments(int n, const double *pos, const int *present, int powers,
                                 double *out);

/* Protein backbones of ideal geometry: bonds and angles of R. A. Engh, R. Huber, Acta Cryst. A47,
   392 (1991), flat peptide groups; helices with the torsions phi, psi = -57, -47 degrees, strands
   with -139, 135 (IUPAC-IUB, Biochemistry 9, 3471, 1970), with some spread, and between them loops
   whose torsions come from four usual regions, chosen so that the chain meets itself little and
   stays compact. Kinds of residues: one of AELKQR in helices, VITYFW in strands, GPNDS in loops. */
typedef struct eqnn_backbone_opts {
    int least, most;    /* residues of a chain; default 40 (most if that is less) and 80 (least
                           if that is more)                                                    */
    double spread;      /* deviation of torsions in degrees, in loops three times that; default 5,
                           negative: none                                                      */
    uint64_t seed;      /* default the context's                                               */
} eqnn_backbone_opts;
/* Chains first..first+n-1 of the seed, each turned at random about its middle. NULL on an error. */
EQNN_API eqnn_proteins *eqnn_backbones(eqnn_ctx *c, const eqnn_backbone_opts *opts, uint64_t first,
                                       int n);
/* The place of atom d: |cd| = length, angle bcd, torsion a-b-c-d (radians), looking from b to c
   clockwise from a (IUPAC). Parsons et al. 2005, doi:10.1002/jcc.20237. And a torsion measured. */
EQNN_API void eqnn_place_atom(const double *a, const double *b, const double *c, double length,
                              double angle, double torsion, double *d);
EQNN_API double eqnn_torsion(const double *a, const double *b, const double *c, const double *d);

/* Augmentation: n points pos [n][axes], in a plane or in space, turned together by a uniform random
   rotation about the origin (turn) and moved by shift N(0,1) along each axis, which depend on
   (seed, index) only. 1 when done. */
EQNN_API int eqnn_augment(eqnn_ctx *c, uint64_t seed, uint64_t index, int turn, double shift,
                          int n, int axes, double *pos);

/* The image out [rows][cols] whose pixel at X = (2 col + 1)/cols - 1, Y = (2 row + 1)/rows - 1 is
   that of the old one at (cos a X + sin a Y, -sin a X + cos a Y), between four pixels by their
   nearness (bilinear); outside is background. out is not in. */
EQNN_API void eqnn_image_turn(int rows, int cols, const double *in, double angle, double background,
                              double *out);
/* Images first..first+n-1 of an IDX file of bytes [images][rows][cols], in 0..1, each turned by an
   angle that depends on (seed, its number) only: out [n][rows][cols]. That is rotated MNIST;
   LieConv's networks see (out - 0.130) / 0.297. 1 when done. */
EQNN_API int eqnn_images_turned(eqnn_ctx *c, const eqnn_idx *x, uint64_t seed, int first, int n,
                                double *out);

/* ------------------------------------------------------------------------------------------------
   3 >>batches   Which examples are trained on together, and in which order. Orders are functions of
                 a seed and an epoch, so a resumed run continues exactly where it was.
   ---------------------------------------------------------------------------------------------- */

/* Numbers 0..n-1 in an order that depends on (seed, stream) only. */
EQNN_API void eqnn_permutation(uint64_t seed, uint64_t stream, int n, int *out);
/* Cuts n examples into parts of the given fractions, their ends rounded down, the last takes the
   rest. items [n] gets the examples of part 0, then of part 1, ...; first [parts+1] where each
   begins. By time (in order), or shuffled by the context's seed. 1 when done. */
EQNN_API int eqnn_split(eqnn_ctx *c, int n, const double *fractions, int parts, int shuffled,
                        int *items, int *first);
/* The same by numbers, shuffled by a seed: counts [parts], together at most n; the rest is left
   out. items has room for the sum of the counts. */
EQNN_API int eqnn_split_counts(eqnn_ctx *c, uint64_t seed, int n, const int *counts, int parts,
                               int *items, int *first);

typedef struct eqnn_batches eqnn_batches;
/* Batches of size examples out of items [n] (copied; NULL: 0..n-1); the last may be smaller. */
EQNN_API eqnn_batches *eqnn_batches_make(eqnn_ctx *c, int n, const int *items, int size,
                                         int shuffled);
EQNN_API void eqnn_batches_free(eqnn_batches *b);
EQNN_API int eqnn_batches_count(const eqnn_batches *b); /* batches in an epoch */
/* for (eqnn_batches_start(b, epoch); (n = eqnn_batches_next(b, &items)) > 0;) ... */
EQNN_API void eqnn_batches_start(eqnn_batches *b, int64_t epoch);
EQNN_API int eqnn_batches_next(eqnn_batches *b, const int **items);

/* ------------------------------------------------------------------------------------------------
   4 >>metrics   How good a prediction is, added up in double. A struct of zeros is ready to use.
   ---------------------------------------------------------------------------------------------- */

/* The running mean of values with weights. */
typedef struct eqnn_average { double weight, value; } eqnn_average;
EQNN_API void eqnn_average_add(eqnn_average *m, double value, double weight);
EQNN_API double eqnn_average_value(const eqnn_average *m); /* NaN of nothing */

/* Pairs of truth y and prediction f; means and co-moments are updated one by one (Welford 1962), so
   nothing cancels when numbers are large and differences small. */
typedef struct eqnn_score {
    double n, mean_y, mean_f, yy, ff, yf;  /* yy = sum (y - mean)^2, ...      */
    double square, absolute;               /* sum (y - f)^2, sum |y - f|      */
} eqnn_score;
EQNN_API void eqnn_score_add(eqnn_score *s, size_t n, const double *truth, const double *predicted);
EQNN_API double eqnn_score_mse(const eqnn_score *s);
EQNN_API double eqnn_score_mae(const eqnn_score *s);
/* 1 - sum (y-f)^2 / sum (y - mean y)^2: 1 is perfect, 0 is as good as the mean. */
EQNN_API double eqnn_score_r2(const eqnn_score *s);
EQNN_API double eqnn_score_pearson(const eqnn_score *s);

/* Root of the mean squared distance of n points a, b [n][3] in space: as they stand, and after the
   shift and turn that make it smallest (Kabsch 1976; by quaternions, Horn 1987), where rounding
   hides what is less than 1e-8 of their extent. NaN of nothing, where a or b is NULL, and where
   numbers are no numbers or, fitted, their squares are too large for a double. */
EQNN_API double eqnn_rmsd(int n, const double *a, const double *b);
EQNN_API double eqnn_rmsd_fitted(int n, const double *a, const double *b);

/* ------------------------------------------------------------------------------------------------
   5 >>terminal   What a program says and is told: options, progress, Ctrl-C, tables, logs.
   ---------------------------------------------------------------------------------------------- */

EQNN_API double eqnn_clock(void);            /* seconds since some moment */
EQNN_API int eqnn_is_terminal(FILE *file);   /* of stdout and stderr; 0 for other files */
EQNN_API int eqnn_colour(FILE *file);        /* a terminal, and NO_COLOR is not set     */

/* From the first call on Ctrl-C only raises a flag, so that the program can end well; a second
   Ctrl-C ends it at once. */
EQNN_API void eqnn_interrupt_catch(void);
EQNN_API int eqnn_interrupted(void);

/* An option is given as "--name value" or "--name=value", with - or _ in its name. Its default says
   what it is: "on" or "off" a switch, "--name", "--no-name", "--name True", "--name=False"; "{}" a
   dictionary of other options, {'k': 128, 'group': T(2)} for --k 128 --group T(2); "--other",
   without a help, another name of that option. */
typedef struct eqnn_option {
    const char *name, *value, *help; /* value: its default */
} eqnn_option;
enum { EQNN_ARGS_MAX = 64 };
typedef struct eqnn_args {
    const char *program, *about;
    int count;
    eqnn_option option[EQNN_ARGS_MAX];
    int given[EQNN_ARGS_MAX];
    char error[256]; /* the first thing that was wrong, or empty */
    int help, status; /* was help asked for; the exit status where there is no context */
    char settings[1024], words[1024]; /* words: those of dictionaries */
    int used;                         /* of words                     */
} eqnn_args;
/* Reads the command line. own ends with a NULL name; --help, --seed, --threads, --epochs, --data,
   --out, --resume and --device are understood by every program (own entries of the same name set
   their default and help; one with a NULL value says that the program does not take it). 1: go on;
   0: help was asked for and printed; -1: a->error says what is wrong. */
EQNN_API int eqnn_args_read(eqnn_args *a, int argc, char **argv, const char *about,
                            const eqnn_option *own);
/* Values; one that cannot be read sets a->error, so check it once after the last. */
EQNN_API const char *eqnn_args_text(eqnn_args *a, const char *name);
EQNN_API int eqnn_args_int(eqnn_args *a, const char *name, int low, int high);
EQNN_API double eqnn_args_number(eqnn_args *a, const char *name); /* ".5", "1/2" */
EQNN_API double eqnn_args_within(eqnn_args *a, const char *name, double low, double high);
EQNN_API int eqnn_args_on(eqnn_args *a, const char *name);
/* The place of the value in a list of words, "tape,checkpoint,adjoint"; of none of them 0 and an
   error. */
EQNN_API int eqnn_args_choice(eqnn_args *a, const char *name, const char *words);
EQNN_API int eqnn_args_given(const eqnn_args *a, const char *name);
/* Options of a list of names, "k,group", that are given although nothing uses them (used is 0) are
   an error, which says what would: "option --k is of no use here: it is for LieTransformer". */
EQNN_API void eqnn_args_only(eqnn_args *a, int used, const char *names, const char *what);
EQNN_API uint64_t eqnn_args_seed(eqnn_args *a);
EQNN_API void eqnn_args_help(const eqnn_args *a, FILE *file);
/* What else is wrong with the options, by printf: kept in a->error unless something was wrong
   before. Returns -1. */
EQNN_API int eqnn_args_fail(eqnn_args *a, const char *format, ...) EQNN__PRINTF(2, 3);
/* "--lr 0.1 --n-train 100", the values of a list of names, "lr,n-train", but empty ones: what a
   resumed run must have again (eqnn_run_opts). Kept in a. */
EQNN_API const char *eqnn_args_settings(eqnn_args *a, const char *names);
/* Seed, threads and device of a context, as they were asked for. */
EQNN_API eqnn_opts eqnn_args_context(eqnn_args *a);
/* The next word of a list "a,b", and how long it is; 0 at the end. The list moves on behind it.
   Commas within parentheses, as in "SO(2,1),T(2)", are part of a word. */
EQNN_API int eqnn_next_word(const char **list, const char **word);

/* The ends of main: eqnn_args_read, the program's own reading, then

      eqnn_ctx *c = eqnn_program_start(&a, &opts);    NULL after --help or a->error, which it prints
      if (c) ...
      return eqnn_program_end(&a, c);                 prints c's error and frees c; the exit status

   Ctrl-C is caught from the start on; the exit status is 130 then. At the end it is an error if not
   all could be printed (the disk was full); a program without that start may call it with NULL for
   this. */
EQNN_API eqnn_ctx *eqnn_program_start(eqnn_args *a, const eqnn_opts *opts);
EQNN_API int eqnn_program_end(const eqnn_args *a, eqnn_ctx *c);

/* A bar with the time left on a terminal; elsewhere a plain line for each tenth of the work. The
   title is not copied: it stays until eqnn_progress_end. */
typedef struct eqnn_progress {
    FILE *file;
    const char *title;
    int64_t total, first;
    double start, shown;
    int terminal, tenth;
} eqnn_progress;
EQNN_API void eqnn_progress_start(eqnn_progress *p, FILE *file, const char *title, int64_t total,
                                  int64_t done);
EQNN_API void eqnn_progress_show(eqnn_progress *p, int64_t done, const char *format, ...)
    EQNN__PRINTF(3, 4);
EQNN_API void eqnn_progress_end(eqnn_progress *p);

/* A table with aligned columns: titles "model|parameters|test", then cell by cell, row by row. */
typedef struct eqnn_table eqnn_table;
EQNN_API eqnn_table *eqnn_table_make(eqnn_ctx *c, const char *titles);
EQNN_API void eqnn_table_free(eqnn_table *t);
EQNN_API void eqnn_table_cell(eqnn_table *t, const char *format, ...) EQNN__PRINTF(2, 3);
EQNN_API void eqnn_table_number(eqnn_table *t, const char *format, double value); /* or "-" */
EQNN_API void eqnn_table_print(const eqnn_table *t, FILE *file);

/* A CSV file, each row flushed when it ends. With append set, rows are added to a file that is
   there already, whose first line must be the same header. */
typedef struct eqnn_csv eqnn_csv;
EQNN_API eqnn_csv *eqnn_csv_open(eqnn_ctx *c, const char *path, const char *header, int append);
EQNN_API void eqnn_csv_text(eqnn_csv *f, const char *text);   /* NULL: an empty cell      */
EQNN_API void eqnn_csv_number(eqnn_csv *f, double value); /* not finite: an empty cell */
EQNN_API void eqnn_csv_end(eqnn_csv *f);                  /* of the row                */
/* A row of a text and n numbers. */
EQNN_API void eqnn_csv_row(eqnn_csv *f, const char *text, int n, const double *numbers);
EQNN_API void eqnn_csv_close(eqnn_csv *f);

/* Makes a folder and those above it; 1 when it is there. */
EQNN_API int eqnn_make_folder(eqnn_ctx *c, const char *path);
/* "folder/name" in the step's memory, name by printf; "" where the folder is "" (or NULL): none. */
EQNN_API const char *eqnn_path_in(eqnn_ctx *c, const char *folder, const char *format, ...)
    EQNN__PRINTF(3, 4);

/* ------------------------------------------------------------------------------------------------
   6 >>runs   A training run from its first step to its last: which examples come when, how much is
              done, when to look at other examples, which weights were the best, and a checkpoint
              from which a run that was stopped goes on as if it had never been.

         eqnn_run *run = eqnn_run_make(c, "small", n, &opts);    the model was called once before
         eqnn_adam *adam = eqnn_adam_make(c, NULL);              after the run, which may load it
         while ((n = eqnn_run_next(run, &items)) >= 0) {
             if (n > 0) {
                 eqnn_adam_rate(adam, eqnn_run_rate(run, &schedule));
                 ... loss of items [n], eqnn_backward, eqnn_adam_step, eqnn_reset ...
                 eqnn_run_step(run, loss, n);
             } else {
                 eqnn_run_look(run, error of the validation examples);
             }
         }
         eqnn_run_best(run);
   ---------------------------------------------------------------------------------------------- */

/* Without epochs and seconds there is nothing to do; with both, what comes first ends the run. */
typedef struct eqnn_run_opts {
    int batch;          /* examples in a step; default 1                                          */
    const int *items;   /* [n] the examples; default 0..n-1                                       */
    int in_order;       /* as they are listed; default shuffled, anew in every epoch              */
    int epochs;         /* passes over them; default no limit                                     */
    double seconds;     /* of steps and looks, those before a resume too; default no limit        */
    double looks;       /* in equal distances (10.5: ten, and one at the end); default none       */
    const char *path;   /* of the checkpoint, "folder/name.safetensors"; default or "" none       */
    double save;        /* seconds between checkpoints; default 120                               */
    int resume;         /* goes on from the checkpoint; where there is none it begins             */
    const char *settings; /* words "--name value" a resume must repeat; default none              */
} eqnn_run_opts;

/* What the command line asks of a run: --resume, with what it needs to be told as before (see
   eqnn_args_settings); --epochs; and, where a program lists them, --evals (looks) and --minutes.
   What is given holds, --epochs and --minutes together too; where neither is, the default of
   --minutes, or of --epochs when that is 0. */
EQNN_API eqnn_run_opts eqnn_args_run(eqnn_args *a, const char *settings);

/* To be read. The first lines are in the checkpoint (its note "run"), beside weights, optimizer and
   random numbers: with epochs only, a resumed run has the bits of one that was never stopped. */
typedef struct eqnn_run {
    int64_t epoch, steps;         /* which pass it is in; steps done                              */
    int batch;                    /* of this epoch's batches done                                 */
    int looks;                    /* that were due so far                                         */
    double seconds, step_seconds; /* of steps and looks; of steps                                 */
    eqnn_average loss, score;     /* of eqnn_run_step; the program's own; since the last look     */
    double value, best;           /* of the last look (NaN: none); the smallest (INFINITY: none)  */
    int looked;                   /* no step since the last look                                  */
    /* how it is run */
    eqnn_ctx *ctx;
    eqnn_run_opts opts;
    eqnn_batches *batches;
    eqnn_progress bar;            /* on stderr                                                    */
    char title[64], path[1024];
    int given, shown, ended;      /* what eqnn_run_next gave; is there a bar; is the run over     */
    double clock, begun, saved;   /* until when seconds count; when the step began; last saved    */
    double *weights;              /* the best, of the first kept parameters and buffers           */
    int kept;
} eqnn_run;
/* Training on n examples; title stands before the bar. With .resume the weights must be there. */
EQNN_API eqnn_run *eqnn_run_make(eqnn_ctx *c, const char *title, int n, const eqnn_run_opts *opts);
/* Ends the run first, so call it while the context is there. NULL does nothing. */
EQNN_API void eqnn_run_free(eqnn_run *r);
/* n > 0: learn from items [n], then call eqnn_run_step; 0: a look is due, then call eqnn_run_look;
   -1: the run is over, or an error or Ctrl-C came (eqnn_interrupted). A step or a look that was not
   reported, since Ctrl-C came in its midst, did not take place: it comes again after a resume.
   Saves before every look, every .save seconds, and at the end. */
EQNN_API int eqnn_run_next(eqnn_run *r, const int **items);
/* A step on n examples is done; their mean loss. */
EQNN_API void eqnn_run_step(eqnn_run *r, double loss, int n);
/* A look is done. Weights with the smallest value so far are kept, and saved beside the checkpoint
   as "folder/name.best.safetensors"; NaN: none are. 1; or 0 when an error or Ctrl-C came before its
   end, so that the value is worth nothing. */
EQNN_API int eqnn_run_look(eqnn_run *r, double value);
/* Text behind the bar: how the training goes. */
EQNN_API void eqnn_run_show(eqnn_run *r, const char *format, ...) EQNN__PRINTF(2, 3);
EQNN_API double eqnn_run_done(const eqnn_run *r);   /* the share of the run, 0..1                 */
EQNN_API double eqnn_run_epochs(const eqnn_run *r); /* epochs done, with fractions                */
EQNN_API double eqnn_run_pace(const eqnn_run *r);   /* seconds of a step; NaN before the first    */
/* A schedule stretched over the run: its steps are millionths (.warmup 10000: the first hundredth),
   .total is set. */
EQNN_API double eqnn_run_rate(const eqnn_run *r, const eqnn_schedule *s);
EQNN_API void eqnn_run_save(eqnn_run *r); /* now; after eqnn_run_step or eqnn_run_look        */
/* Ends the run, which saves it; then uses the best weights: 1, or 0 when no look had a value. */
EQNN_API void eqnn_run_end(eqnn_run *r);
EQNN_API int eqnn_run_best(eqnn_run *r);
/* Removes a checkpoint of an earlier run, and the best weights beside it. */
EQNN_API void eqnn_run_forget(const char *path);

/* ------------------------------------------------------------------------------------------------
   7 >>plots   Pictures as SVG, which browsers show and editors edit.
   ---------------------------------------------------------------------------------------------- */

typedef struct eqnn_plot_opts {
    const char *title, *x_label, *y_label;  /* default none                                       */
    int log_x, log_y;                       /* logarithmic axes; what is not positive is left out */
    int equal;                              /* a unit is as long in y as in x                     */
    double x_min, x_max, y_min, y_max;      /* default (both zero) what the data needs            */
    int width, height;                      /* of the panel; default 560, 400, least 160, 120     */
} eqnn_plot_opts;

typedef struct eqnn_series_opts {
    const char *colour;  /* default the next of a palette for colour-blind readers too, which has
                            seven; then lines are dashed */
    int points;          /* dots; default a line                                                  */
    int dashed;          /* a line of dashes; default one without gaps                            */
    double size;         /* width of a line, default 1.8; radius of a dot, default 2.2            */
    double opacity;      /* default 1                                                             */
} eqnn_series_opts;

typedef struct eqnn_plot eqnn_plot;
EQNN_API eqnn_plot *eqnn_plot_make(eqnn_ctx *c, const eqnn_plot_opts *opts);
EQNN_API void eqnn_plot_free(eqnn_plot *p);
/* n points, copied; label for the legend, or NULL; NaN and sizes above 1e300 break a line. 1 when
   done. x and y may be NULL where n is 0. */
EQNN_API int eqnn_plot_add(eqnn_plot *p, const char *label, int n, const double *x, const double *y,
                           const eqnn_series_opts *opts);
/* A line from a log that eqnn_csv wrote: columns x and y (from 0) of the rows whose first cell is
   name, which is the label; name NULL: of all rows. Other lines are passed over. 1 when done; 0
   without an error, and nothing is drawn, where there is no such row, as of a run that was short or
   whose numbers were not finite. A file that cannot be read or lacks the columns is an error. */
EQNN_API int eqnn_plot_csv(eqnn_plot *p, const char *path, const char *name, int x, int y,
                           const eqnn_series_opts *opts);
EQNN_API int eqnn_plot_save(const eqnn_plot *p, const char *path);
/* Several panels in one picture, row by row. */
EQNN_API int eqnn_plots_save(eqnn_ctx *c, const char *path, eqnn_plot *const *plots, int n,
                             int columns);
/* Two runs [frames*beads, 3] side by side, seen along z: the path of each bead, and the chain in
   its first and last frame. */
EQNN_API int eqnn_plot_trajectories(eqnn_ctx *c, const char *path, int frames, int beads,
                                    const double *left, const double *right,
                                    const char *left_title, const char *right_title);
/* A colour "#rrggbb" for t in 0..1 from dark violet to yellow; text [8] */
EQNN_API void eqnn_plot_colour(double t, char *text);

#endif /* EQNN_DATA_H */

#if defined(EQNN_IMPLEMENTATION) && !defined(EQNN__DATA_IMPLEMENTED)
#define EQNN__DATA_IMPLEMENTED

#include <ctype.h>
#include <errno.h>
#include <locale.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#if defined(_WIN32)
#include <direct.h>
#include <io.h>
#else
#include <sys/stat.h>
#include <unistd.h>
#endif
#ifndef _MSC_VER
#include <sys/time.h>
#endif

#ifdef EQNN_ZLIB
#include <zlib.h>
#endif

/* ------------------------------------------------------------------------------------------------
   1 >>files   Every count and offset in a file is checked against the bytes that are there before
               it is used; parsers return a phrase that says what is wrong, or NULL.
   ---------------------------------------------------------------------------------------------- */

/* Bytes that grow; failed once there was no memory. */
typedef struct eqnn__blob {
    unsigned char *p;
    size_t size, capacity;
    int failed;
} eqnn__blob;

/* Room for n more bytes, or NULL. */
static unsigned char *eqnn__blob_room(eqnn__blob *b, size_t n)
{
    if (b->failed || n > (size_t)-1 / 4 || b->size > (size_t)-1 / 4) {
        b->failed = 1;
        return NULL;
    }
    if (b->size + n > b->capacity) {
        size_t capacity = 2 * b->capacity + n + 64;
        unsigned char *p = (unsigned char *)eqnn__large(realloc(b->p, capacity), capacity);
        if (!p) {
            b->failed = 1;
            return NULL;
        }
        b->p = p;
        b->capacity = capacity;
    }
    return b->p + b->size;
}

static void eqnn__blob_put(eqnn__blob *b, const void *bytes, size_t n)
{
    unsigned char *to = eqnn__blob_room(b, n);
    if (!to || n == 0) return;
    memcpy(to, bytes, n);
    b->size += n;
}

/* The lowest n bytes of a number, lowest first: what zip files are made of. */
static void eqnn__blob_number(eqnn__blob *b, uint64_t value, int n)
{
    unsigned char bytes[8];
    for (int i = 0; i < n; i++) bytes[i] = (unsigned char)(value >> 8 * i & 255);
    eqnn__blob_put(b, bytes, (size_t)n);
}

static uint64_t eqnn__zip_int(const unsigned char *p, int n)
{
    uint64_t value = 0;
    while (n-- > 0) value = value << 8 | p[n];
    return value;
}

/* A file as bytes; read in pieces, so that pipes work and sizes need not be trusted: the length
   that a file says it has is only the first room. */
static int eqnn__blob_read(eqnn_ctx *c, const char *path, eqnn__blob *b)
{
    FILE *f = fopen(path, "rb");
    if (!f) {
        eqnn_fail(c, "cannot open '%s': %s", path, strerror(errno));
        return 0;
    }
    long length = fseek(f, 0, SEEK_END) ? 0 : ftell(f);
    rewind(f);
    if (length > 0 && length < LONG_MAX / 4) eqnn__blob_room(b, (size_t)length + 65536);
    for (;;) {
        unsigned char *to = eqnn__blob_room(b, 65536);
        size_t got = to ? fread(to, 1, b->capacity - b->size, f) : 0;
        if (got == 0) break;
        b->size += got;
    }
    int bad = ferror(f);
    fclose(f);
    if (b->failed) eqnn_fail(c, "no memory to read '%s'", path);
    else if (bad) eqnn_fail(c, "cannot read '%s': %s", path, strerror(errno));
    return !b->failed && !bad;
}

/* What bytes that some reader has no use for look like, or NULL. A safetensors file begins with the
   length of its JSON in eight bytes. */
static const char *eqnn__file_kind(const void *bytes, size_t size)
{
    const unsigned char *p = (const unsigned char *)bytes;
    if (!p || size < 10) return NULL;
    if (memcmp(p, "\x93NUMPY", 6) == 0) return "an npy file, which holds a single array";
    if (memcmp(p, "PK\3\4", 4) == 0) return "an npz file or another zip archive";
    if (memcmp(p, "\x89HDF\r\n", 6) == 0) return "an HDF5 file";
    if (p[0] == 0x1f && p[1] == 0x8b) return "a gzip file";
    if (!p[5] && !p[6] && !p[7] && p[8] == '{') return "a safetensors file, as models are saved in";
    return NULL;
}

/* Numbers that printf wrote in the program's locale get points, as files have, in place; the new
   length. */
static size_t eqnn__pointed(char *text)
{
    const char *sign = localeconv()->decimal_point;
    char *to = text;
    size_t n = strlen(sign);
    if (!strcmp(sign, ".")) return strlen(text);
    for (const char *s = text; *s; s++) {
        int inside = to > text && isdigit((unsigned char)to[-1]) && !strncmp(s, sign, n) &&
                     isdigit((unsigned char)s[n]);
        *to++ = inside ? '.' : *s;
        if (inside) s += n - 1;
    }
    *to = 0;
    return (size_t)(to - text);
}

/* printf into bytes that grow. */
static EQNN__PRINTF(2, 3) void eqnn__blob_print(eqnn__blob *b, const char *format, ...)
{
    char text[1024];
    va_list list;
    va_start(list, format);
    int n = vsnprintf(text, sizeof text, format, list);
    va_end(list);
    if (n < 0 || n >= (int)sizeof text) b->failed = 1;
    else eqnn__blob_put(b, text, eqnn__pointed(text));
}

/* All of b into a file that appears at path only when it is whole; frees b. */
static int eqnn__blob_save(eqnn_ctx *c, const char *path, eqnn__blob *b)
{
    if (b->failed) eqnn_fail(c, "no memory to write '%s'", path);
    int good = !b->failed && eqnn_write_file(c, path, b->p, b->size);
    free(b->p);
    memset(b, 0, sizeof *b);
    return good;
}

/* ---- npy: a magic number, a Python dict as text, the numbers ---- */

typedef struct eqnn__npy {
    char dtype[24];
    int fortran, dims;
    int64_t shape[8];
    size_t count;
    int big, bytes;             /* of one number */
    char kind;                  /* 'f' 'i' 'u' 'b', or 0: not numbers */
    const unsigned char *data;
    size_t size;                /* bytes at data */
} eqnn__npy;

typedef struct eqnn__npy_eat { const unsigned char *p, *end; } eqnn__npy_eat; /* text to come */

static void eqnn__npy_eat_space(eqnn__npy_eat *s)
{
    while (s->p < s->end && *s->p < 128 && isspace(*s->p)) s->p++;
}

/* The next character that is not space, if it is ch. */
static int eqnn__npy_eat_char(eqnn__npy_eat *s, int ch)
{
    eqnn__npy_eat_space(s);
    if (s->p >= s->end || *s->p != ch) return 0;
    s->p++;
    return 1;
}

/* A quoted string without escapes. */
static int eqnn__npy_eat_string(eqnn__npy_eat *s, char *out, size_t capacity)
{
    eqnn__npy_eat_space(s);
    if (s->p >= s->end || (*s->p != '\'' && *s->p != '"')) return 0;
    unsigned char quote = *s->p++;
    size_t n = 0;
    while (s->p < s->end && *s->p != quote) {
        if (n + 1 >= capacity) return 0;
        out[n++] = (char)*s->p++;
    }
    out[n] = 0;
    return s->p < s->end && *s->p++ == quote;
}

static int eqnn__npy_eat_word(eqnn__npy_eat *s, const char *word)
{
    size_t n = strlen(word);
    eqnn__npy_eat_space(s);
    if ((size_t)(s->end - s->p) < n || memcmp(s->p, word, n) != 0) return 0;
    s->p += n;
    return 1;
}

/* (2048, 12, 2): each number below 2^62; Python 2 wrote 12L */
static const char *eqnn__npy_shape(eqnn__npy_eat *s, eqnn__npy *h)
{
    if (!eqnn__npy_eat_char(s, '(')) return "the shape is not a tuple";
    for (h->dims = 0; !eqnn__npy_eat_char(s, ')'); h->dims++) {
        if (h->dims == 8) return "more than 8 dimensions";
        eqnn__npy_eat_space(s);
        if (s->p >= s->end || !isdigit(*s->p)) return "the shape is not made of numbers";
        int64_t v = 0;
        for (; s->p < s->end && isdigit(*s->p); s->p++) {
            if (v > ((int64_t)1 << 58)) return "a dimension is absurdly large";
            v = 10 * v + (*s->p - '0');
        }
        if (s->p < s->end && *s->p == 'L') s->p++;
        h->shape[h->dims] = v;
        if (!eqnn__npy_eat_char(s, ',') && !(s->p < s->end && *s->p == ')'))
            return "the shape lacks a comma or a bracket";
    }
    return NULL;
}

/* "<f8": byte order, kind, bytes. Other kinds (strings, structures) leave kind 0. */
static void eqnn__npy_dtype(eqnn__npy *h)
{
    const char *d = h->dtype, order = d[0];
    int n = d[0] && d[1] && d[2] >= '1' && d[2] <= '8' && !d[3] ? d[2] - '0' : 0;
    int power = n == 1 || n == 2 || n == 4 || n == 8;
    const uint16_t one = 1;
    unsigned char first;
    memcpy(&first, &one, 1);
    if (!strchr("<>|=", order) || !power) return;
    if (d[1] == 'f' ? n > 1 : d[1] == 'b' ? n == 1 : d[1] == 'i' || d[1] == 'u') h->kind = d[1];
    h->bytes = n;
    h->big = order == '>' || (order == '=' && first == 0);
}

/* {'descr': '<f8', 'fortran_order': False, 'shape': (2048, 12, 2), } */
static const char *eqnn__npy_dict(eqnn__npy_eat *s, eqnn__npy *h)
{
    unsigned seen = 0;
    char key[24];
    if (!eqnn__npy_eat_char(s, '{')) return "the header is not a dictionary";
    while (!eqnn__npy_eat_char(s, '}')) {
        const char *wrong = NULL;
        if (!eqnn__npy_eat_string(s, key, sizeof key) || !eqnn__npy_eat_char(s, ':'))
            return "the header is not a dictionary";
        if (strcmp(key, "descr") == 0) {
            seen |= 1;
            if (eqnn__npy_eat_char(s, '[')) {      /* a structure: named, not read */
                snprintf(h->dtype, sizeof h->dtype, "structure");
                return NULL;
            }
            if (!eqnn__npy_eat_string(s, h->dtype, sizeof h->dtype))
                wrong = "the dtype is no string";
        } else if (strcmp(key, "fortran_order") == 0) {
            seen |= 2;
            h->fortran = eqnn__npy_eat_word(s, "True");
            if (!h->fortran && !eqnn__npy_eat_word(s, "False"))
                wrong = "fortran_order is no boolean";
        } else if (strcmp(key, "shape") == 0) {
            seen |= 4;
            wrong = eqnn__npy_shape(s, h);
        } else {
            wrong = "the header has an unknown key";
        }
        if (wrong) return wrong;
        if (!eqnn__npy_eat_char(s, ',') && !(s->p < s->end && *s->p == '}'))
            return "the header lacks a comma or a brace";
    }
    return seen == 7 ? NULL : "the header lacks descr, fortran_order or shape";
}

/* The product of the dimensions, no larger than the bytes that are there allow. */
static const char *eqnn__npy_count(eqnn__npy *h)
{
    size_t most = h->size / (size_t)h->bytes, count = 1;
    for (int i = 0; i < h->dims; i++)
        if (h->shape[i] == 0) return NULL; /* no numbers at all */
    for (int i = 0; i < h->dims; i++) {
        if ((uint64_t)h->shape[i] > most / count) return "its numbers are cut off";
        count *= (size_t)h->shape[i];
    }
    if (count > most) return "its numbers are cut off";
    h->count = count;
    return NULL;
}

static const char *eqnn__npy_parse(const unsigned char *p, size_t size, eqnn__npy *h)
{
    memset(h, 0, sizeof *h);
    if (size < 10 || memcmp(p, "\x93NUMPY", 6) != 0) return "it is not an npy array";
    if (p[6] < 1 || p[6] > 3) return "its npy version is not 1, 2 or 3";
    size_t start = p[6] == 1 ? 10 : 12;
    if (size < start) return "its header is cut off";
    size_t length = (size_t)eqnn__zip_int(p + 8, p[6] == 1 ? 2 : 4);
    if (length > size - start) return "its header is cut off";
    eqnn__npy_eat s;
    s.p = p + start;
    s.end = s.p + length;
    const char *wrong = eqnn__npy_dict(&s, h);
    if (wrong) return wrong;
    h->data = p + start + length;
    h->size = size - start - length;
    eqnn__npy_dtype(h);
    return h->kind ? eqnn__npy_count(h) : NULL;
}

/* IEEE 754 half precision: sign, 5 bits of exponent (bias 15), 10 of fraction. */
static double eqnn__npy_half(unsigned bits)
{
    int exponent = (int)(bits >> 10 & 31);
    double fraction = (double)(bits & 1023);
    double v = exponent == 0    ? ldexp(fraction, -24)
               : exponent == 31 ? (fraction != 0 ? NAN : INFINITY)
                                : ldexp(fraction + 1024, exponent - 25);
    return bits & 0x8000 ? -v : v;
}

/* A whole number of 1, 2, 4 or 8 bytes, lowest first: written out, so that it is a single load. */
static uint64_t eqnn__npy_bits(const unsigned char *p, int bytes)
{
    uint32_t low = p[0], high;
    if (bytes == 1) return low;
    low |= (uint32_t)p[1] << 8;
    if (bytes == 2) return low;
    low |= (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
    if (bytes == 4) return low;
    high = (uint32_t)p[4] | (uint32_t)p[5] << 8 | (uint32_t)p[6] << 16 | (uint32_t)p[7] << 24;
    return (uint64_t)high << 32 | low;
}

static double eqnn__npy_float(uint64_t bits)
{
    uint32_t word = (uint32_t)bits;
    float f;
    memcpy(&f, &word, 4);
    return (double)f;
}

static double eqnn__npy_double(uint64_t bits)
{
    double d;
    memcpy(&d, &bits, 8);
    return d;
}

/* n numbers that stand behind each other, highest byte first if big, whatever order is this
   machine's. */
static void eqnn__npy_numbers(const unsigned char *p, size_t n, char kind, int bytes, int big,
                              double *out)
{
    uint64_t sign = (uint64_t)1 << (8 * bytes - 1);
    int64_t whole;
    for (size_t i = 0; i < n; i++, p += bytes) {
        unsigned char turned[8];
        for (int k = 0; k < bytes && big; k++) turned[k] = p[bytes - 1 - k];
        uint64_t u = eqnn__npy_bits(big ? turned : p, bytes);
        if (kind == 'f') {
            out[i] = bytes == 8 ? eqnn__npy_double(u)
                   : bytes == 4 ? eqnn__npy_float(u) : eqnn__npy_half((unsigned)u);
        } else if (kind == 'i') {
            u = (u ^ sign) - sign; /* two's complement of 8 bytes */
            memcpy(&whole, &u, 8);
            out[i] = (double)whole;
        } else {
            out[i] = kind == 'b' ? (double)(u != 0) : (double)u;
        }
    }
}

/* Where the number stands that comes after index[] in C order, of an array in Fortran order: the
   first index runs fastest, so index i of dimension d lies i * (product of the dimensions before d)
   further. */
static size_t eqnn__npy_next(const eqnn__npy *h, int64_t *index, size_t at)
{
    for (int d = h->dims - 1; d >= 0; d--) {
        size_t stride = 1;
        for (int e = 0; e < d; e++) stride *= (size_t)h->shape[e];
        at += stride;
        if (++index[d] < h->shape[d]) break;
        at -= stride * (size_t)h->shape[d];
        index[d] = 0;
    }
    return at;
}

static void eqnn__npy_values(const eqnn__npy *h, double *out)
{
    int64_t index[8] = { 0, 0, 0, 0, 0, 0, 0, 0 };
    const unsigned char *p = h->data;
    size_t at = 0, n = h->count, bytes = (size_t)h->bytes;
    if (h->fortran)
        for (size_t i = 0; i < n; i++) {
            eqnn__npy_numbers(p + at * bytes, 1, h->kind, h->bytes, h->big, &out[i]);
            at = eqnn__npy_next(h, index, at);
        }
    else if (h->kind == 'f' && bytes == 8 && !h->big) /* most of what there is */
        for (size_t i = 0; i < n; i++) out[i] = eqnn__npy_double(eqnn__npy_bits(p + 8 * i, 8));
    else if (h->kind == 'f' && bytes == 4 && !h->big)
        for (size_t i = 0; i < n; i++) out[i] = eqnn__npy_float(eqnn__npy_bits(p + 4 * i, 4));
    else
        eqnn__npy_numbers(p, n, h->kind, h->bytes, h->big, out);
}

/* ---- zip: entries, then a directory of them, then where the directory is ---- */

struct eqnn_npz {
    eqnn_ctx *ctx;
    char where[208];   /* "path: " for sentences, "" where there is none */
    int count;
    eqnn_array *array;
    char **text;       /* owns the names and dtypes */
    double **values;   /* owns the numbers          */
};

typedef struct eqnn__zip {
    const unsigned char *p;
    size_t size, at, left;  /* the directory's present entry; entries to come */
    uint64_t used;          /* compressed bytes of the entries so far         */
} eqnn__zip;

typedef struct eqnn__zip_entry {
    const unsigned char *name, *data;
    size_t name_size;
    unsigned flags, method;
    uint32_t crc;
    uint64_t packed, size, local;
} eqnn__zip_entry;

/* CRC-32 of zip and PNG: division by the polynomial 0xEDB88320 (bits reversed), bytewise; and
   sixteen bytes at once (Kounavis and Berry 2005), of which only the first four wait for what
   stood before them. */
static uint32_t eqnn__zip_crc(const unsigned char *p, size_t n)
{
    uint32_t t[16][256], crc = 0xffffffffu;
    for (uint32_t i = 0; i < 256; i++) {
        t[0][i] = i;
        for (int k = 0; k < 8; k++) t[0][i] = t[0][i] >> 1 ^ (t[0][i] & 1 ? 0xedb88320u : 0);
    }
    for (int k = 1; k < 16; k++) /* what a byte leaves when k zeros follow it */
        for (int i = 0; i < 256; i++) t[k][i] = t[k - 1][i] >> 8 ^ t[0][t[k - 1][i] & 255];
    for (; n >= 16; n -= 16, p += 16) {
        uint32_t next = t[11][p[4]] ^ t[10][p[5]] ^ t[9][p[6]] ^ t[8][p[7]] ^ t[7][p[8]] ^
                        t[6][p[9]] ^ t[5][p[10]] ^ t[4][p[11]] ^ t[3][p[12]] ^ t[2][p[13]] ^
                        t[1][p[14]] ^ t[0][p[15]];
        crc ^= (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
        crc = next ^ t[15][crc & 255] ^ t[14][crc >> 8 & 255] ^ t[13][crc >> 16 & 255] ^
              t[12][crc >> 24];
    }
    while (n-- > 0) crc = crc >> 8 ^ t[0][(crc ^ *p++) & 255];
    return crc ^ 0xffffffffu;
}

/* The last record of an archive, "PK56", possibly followed by a comment; its sizes stand in another
   record, "PK66", when they do not fit. */
static const char *eqnn__zip_end(eqnn__zip *z)
{
    if (z->size < 22) return "the file is too short";
    size_t at = z->size - 22, lowest = at > 65535 ? at - 65535 : 0;
    while (memcmp(z->p + at, "PK\5\6", 4) != 0)
        if (at-- == lowest)
            return memcmp(z->p, "PK\3\4", 4) ? "it is neither npy nor npz" : "its end is missing";
    uint64_t count = eqnn__zip_int(z->p + at + 10, 2), bytes = eqnn__zip_int(z->p + at + 12, 4);
    uint64_t start = eqnn__zip_int(z->p + at + 16, 4);
    if (at >= 20 && memcmp(z->p + at - 20, "PK\6\7", 4) == 0) {
        uint64_t where = eqnn__zip_int(z->p + at - 12, 8);
        if (z->size < 56 || where > z->size - 56 || memcmp(z->p + where, "PK\6\6", 4) != 0)
            return "its zip64 record is missing";
        count = eqnn__zip_int(z->p + where + 32, 8);
        bytes = eqnn__zip_int(z->p + where + 40, 8);
        start = eqnn__zip_int(z->p + where + 48, 8);
    }
    if (start > at || bytes > at - start) return "its directory lies outside the file";
    if (count > bytes / 46) return "its directory is shorter than it says";
    z->at = (size_t)start;
    z->left = (size_t)count;
    z->size = at;  /* nothing an entry needs lies beyond */
    return NULL;
}

/* Sizes of 2^32 - 1 mean: look into the extra field 1, where those that did not fit stand. */
static const char *eqnn__zip_large(eqnn__zip_entry *e, const unsigned char *extra, size_t size)
{
    uint64_t *wide[3];
    wide[0] = &e->size; wide[1] = &e->packed; wide[2] = &e->local;
    if (e->size != 0xffffffffu && e->packed != 0xffffffffu && e->local != 0xffffffffu) return NULL;
    for (size_t at = 0; at + 4 <= size;) {
        size_t id = (size_t)eqnn__zip_int(extra + at, 2);
        size_t n = (size_t)eqnn__zip_int(extra + at + 2, 2);
        at += 4;
        if (n > size - at) break;
        for (int k = 0; id == 1 && k < 3; k++) {
            if (*wide[k] != 0xffffffffu) continue;
            if (n < 8) return "its zip64 sizes are missing";
            *wide[k] = eqnn__zip_int(extra + at, 8);
            at += 8;
            n -= 8;
        }
        if (id == 1) return NULL;
        at += n;
    }
    return "its zip64 sizes are missing";
}

/* The bytes of an entry lie behind a second header of its own, whose lengths may differ. */
static const char *eqnn__zip_data(eqnn__zip *z, eqnn__zip_entry *e)
{
    if (z->size < 30 || e->local > z->size - 30 || memcmp(z->p + e->local, "PK\3\4", 4) != 0)
        return "an entry lies outside the file";
    size_t at = (size_t)e->local;
    at += 30 + (size_t)(eqnn__zip_int(z->p + at + 26, 2) + eqnn__zip_int(z->p + at + 28, 2));
    if (at > z->size || e->packed > z->size - at) return "an entry is cut off";
    z->used += e->packed;
    if (z->used > z->size) return "its entries overlap";
    e->data = z->p + at;
    return NULL;
}

/* The next entry of the directory. */
static const char *eqnn__zip_next(eqnn__zip *z, eqnn__zip_entry *e)
{
    if (z->size - z->at < 46 || memcmp(z->p + z->at, "PK\1\2", 4) != 0)
        return "its directory is damaged";
    const unsigned char *p = z->p + z->at;
    size_t name = (size_t)eqnn__zip_int(p + 28, 2), extra = (size_t)eqnn__zip_int(p + 30, 2);
    size_t all = 46 + name + extra + (size_t)eqnn__zip_int(p + 32, 2);
    if (all > z->size - z->at) return "its directory is cut off";
    memset(e, 0, sizeof *e);
    e->flags = (unsigned)eqnn__zip_int(p + 8, 2);
    e->method = (unsigned)eqnn__zip_int(p + 10, 2);
    e->crc = (uint32_t)eqnn__zip_int(p + 16, 4);
    e->packed = eqnn__zip_int(p + 20, 4);
    e->size = eqnn__zip_int(p + 24, 4);
    e->local = eqnn__zip_int(p + 42, 4);
    e->name = p + 46;
    e->name_size = name;
    z->at += all;
    z->left--;
    const char *wrong = eqnn__zip_large(e, p + 46 + name, extra);
    return wrong ? wrong : eqnn__zip_data(z, e);
}

/* Deflated bytes through zlib; no more than a factor 1032 can be won by deflating. */
static const char *eqnn__zip_inflate(const eqnn__zip_entry *e, unsigned char *out)
{
#ifdef EQNN_ZLIB
    z_stream s;
    memset(&s, 0, sizeof s);
    if (e->packed > 0x7fffffffu || e->size > 0x7fffffffu) return "too large for one call of zlib";
    if (inflateInit2(&s, -15) != Z_OK) return "zlib has no memory";
    s.next_in = (Bytef *)(uintptr_t)e->data;
    s.avail_in = (uInt)e->packed;
    s.next_out = out;
    s.avail_out = (uInt)e->size;
    int end = inflate(&s, Z_FINISH);
    inflateEnd(&s);
    return end == Z_STREAM_END && s.avail_out == 0 ? NULL : "its compressed bytes are damaged";
#else
    (void)e;
    (void)out;
    return "it is compressed: build with -DEQNN_ZLIB and link -lz, or write it with numpy.savez";
#endif
}

/* The bytes of an entry; *made is freed by the caller. */
static const char *eqnn__zip_bytes(const eqnn__zip_entry *e, const unsigned char **bytes,
                                   unsigned char **made)
{
    *bytes = e->data;
    if (e->flags & 1) return "it is encrypted";
    if (e->method == 8) {
        if (e->size / 1032 > e->packed + 1) return "its size cannot be true";
        *bytes = *made = (unsigned char *)malloc((size_t)e->size + 1);
        if (!*made) return "no memory for it";
        const char *wrong = eqnn__zip_inflate(e, *made);
        if (wrong) return wrong;
    } else if (e->method != 0) {
        return "it is compressed in a way not known here";
    } else if (e->size != e->packed) {
        return "its two sizes differ";
    }
    return eqnn__zip_crc(*bytes, (size_t)e->size) == e->crc ? NULL : "its checksum is wrong";
}

/* Is it called what numpy calls an array? */
static int eqnn__npz_name(const void *name, size_t n)
{
    return n > 4 && memcmp((const char *)name + n - 4, ".npy", 4) == 0;
}

/* Appends one array to z. */
static const char *eqnn__npz_add(eqnn_npz *z, const char *name, size_t name_size,
                                 const eqnn__npy *h)
{
    eqnn_array *a = &z->array[z->count];
    if (eqnn__npz_name(name, name_size)) name_size -= 4;
    if (h->count > (size_t)-1 / sizeof(double)) return "no memory for it";
    char *text = (char *)malloc(name_size + 1 + sizeof h->dtype);
    size_t room = h->count ? h->count : 1;
    size_t size = room * sizeof(double);
    double *values = h->kind ? (double *)eqnn__large(malloc(size), size) : NULL;
    if (!text || (h->kind && !values)) {
        free(text);
        free(values);
        return "no memory for it";
    }
    memcpy(text, name, name_size);
    text[name_size] = 0;
    memcpy(text + name_size + 1, h->dtype, sizeof h->dtype);
    if (values) eqnn__npy_values(h, values);
    a->name = text;
    a->dtype = text + name_size + 1;
    a->dims = h->dims;
    memcpy(a->shape, h->shape, sizeof a->shape);
    a->count = h->count;
    a->values = values;
    z->text[z->count] = text;
    z->values[z->count++] = values;
    return NULL;
}

static eqnn_npz *eqnn__npz_make(eqnn_ctx *c, const char *where, size_t entries)
{
    eqnn_npz *z = (eqnn_npz *)calloc(1, sizeof *z);
    if (z) {
        z->ctx = c;
        snprintf(z->where, sizeof z->where, "%s", where);
        z->array = (eqnn_array *)calloc(entries + 1, sizeof *z->array);
        z->text = (char **)calloc(entries + 1, sizeof *z->text);
        z->values = (double **)calloc(entries + 1, sizeof *z->values);
    }
    if (z && z->array && z->text && z->values) return z;
    eqnn_npz_close(z);
    eqnn_fail(c, "npz: %sno memory for a directory of %.0f arrays", where, (double)entries);
    return NULL;
}

EQNN_API void eqnn_npz_close(eqnn_npz *z)
{
    if (!z) return;
    for (int i = 0; i < z->count; i++) {
        free(z->text[i]);
        free(z->values[i]);
    }
    free(z->array);
    free(z->text);
    free(z->values);
    free(z);
}

/* One entry of the archive into z; a phrase when that fails. Folders and other files are passed
   over: what neither is an array nor has its name. */
static const char *eqnn__npz_entry(eqnn_npz *z, const eqnn__zip_entry *e)
{
    const unsigned char *bytes = NULL;
    unsigned char *made = NULL;
    eqnn__npy h;
    const char *wrong = eqnn__zip_bytes(e, &bytes, &made);
    int is_array = !wrong && e->size >= 6 && memcmp(bytes, "\x93NUMPY", 6) == 0;
    if (is_array || eqnn__npz_name(e->name, e->name_size)) {
        if (!wrong) wrong = eqnn__npy_parse(bytes, (size_t)e->size, &h);
        if (!wrong) wrong = eqnn__npz_add(z, (const char *)e->name, e->name_size, &h);
    } else {
        wrong = NULL;
    }
    free(made);
    return wrong;
}

/* Closes z and records the error, naming the file (as z->where does) and the entry (at most 60
   printable characters of it). */
static eqnn_npz *eqnn__npz_fail(eqnn_npz *z, eqnn_ctx *c, const char *where,
                                const eqnn__zip_entry *e, const char *wrong)
{
    char text[64] = "";
    for (size_t i = 0; e && i < e->name_size && i < 60; i++)
        text[i] = isprint(e->name[i]) ? (char)e->name[i] : '?';
    if (*text) eqnn_fail(c, "npz: %sentry '%s': %s", where, text, wrong);
    else eqnn_fail(c, "npz: %s%s", where, wrong);
    eqnn_npz_close(z);
    return NULL;
}

static eqnn_npz *eqnn__npz_single(eqnn_ctx *c, const char *where, const unsigned char *p,
                                  size_t size)
{
    eqnn__npy h;
    const char *wrong = eqnn__npy_parse(p, size, &h);
    if (wrong) return eqnn__npz_fail(NULL, c, where, NULL, wrong);
    eqnn_npz *z = eqnn__npz_make(c, where, 1);
    wrong = z ? eqnn__npz_add(z, "arr", 3, &h) : NULL;
    return wrong ? eqnn__npz_fail(z, c, where, NULL, wrong) : z;
}

/* The bytes of the file at path; NULL: of none. */
static eqnn_npz *eqnn__npz_read(eqnn_ctx *c, const char *path, const void *bytes, size_t size)
{
    char where[sizeof ((eqnn_npz *)0)->where] = "";
    eqnn__zip zip;
    memset(&zip, 0, sizeof zip);
    zip.p = (const unsigned char *)bytes;
    zip.size = size;
    if (path) snprintf(where, sizeof where, "%.200s: ", path);
    if (!bytes) return eqnn__npz_fail(NULL, c, where, NULL, "there are no bytes");
    if (size >= 6 && memcmp(bytes, "\x93NUMPY", 6) == 0)
        return eqnn__npz_single(c, where, zip.p, size);
    const char *wrong = eqnn__zip_end(&zip), *kind = eqnn__file_kind(bytes, size);
    if (wrong && kind && zip.p[0] != 'P') {
        eqnn_fail(c, "npz: %sit looks like %s, and is neither npy nor npz", where, kind);
        return NULL;
    }
    if (wrong) return eqnn__npz_fail(NULL, c, where, NULL, wrong);
    eqnn_npz *z = eqnn__npz_make(c, where, zip.left);
    while (z && zip.left > 0) {
        eqnn__zip_entry e;
        wrong = eqnn__zip_next(&zip, &e);
        if (wrong) return eqnn__npz_fail(z, c, where, NULL, wrong);
        wrong = eqnn__npz_entry(z, &e);
        if (wrong) return eqnn__npz_fail(z, c, where, &e, wrong);
    }
    return z;
}

EQNN_API eqnn_npz *eqnn_npz_parse(eqnn_ctx *c, const void *bytes, size_t size)
{
    return eqnn__npz_read(c, NULL, bytes, size);
}

EQNN_API eqnn_npz *eqnn_npz_open(eqnn_ctx *c, const char *path)
{
    eqnn__blob b = { NULL, 0, 0, 0 };
    eqnn_npz *z = NULL;
    if (!path) eqnn_fail(c, "npz_open: no path");
    else if (eqnn__blob_read(c, path, &b)) z = eqnn__npz_read(c, path, b.p, b.size);
    free(b.p);
    return z;
}

/* The file at path: an archive of arrays into *z, or anything else as bytes into b, which are the
   caller's to free. 0: an error. */
static int eqnn__npz_or_bytes(eqnn_ctx *c, const char *op, const char *path, eqnn_npz **z,
                              eqnn__blob *b)
{
    if (!path) eqnn_fail(c, "%s: no path", op);
    if (!path || !eqnn__blob_read(c, path, b)) return 0;
    if (b->size <= 4 || memcmp(b->p, "PK", 2) != 0) return 1;
    *z = eqnn__npz_read(c, path, b->p, b->size);
    return *z != NULL;
}

EQNN_API int eqnn_npz_count(const eqnn_npz *z)
{
    return z ? z->count : 0;
}

EQNN_API const eqnn_array *eqnn_npz_at(const eqnn_npz *z, int i)
{
    return z && i >= 0 && i < z->count ? &z->array[i] : NULL;
}

EQNN_API const eqnn_array *eqnn_npz_find(const eqnn_npz *z, const char *name)
{
    for (int i = 0; z && name && i < z->count; i++)
        if (strcmp(z->array[i].name, name) == 0) return &z->array[i];
    return NULL;
}

EQNN_API const eqnn_array *eqnn_npz_need(const eqnn_npz *z, const char *name, int dims)
{
    const eqnn_array *a = eqnn_npz_find(z, name);
    if (!z) return NULL;
    if (!a)
        eqnn_fail(z->ctx, "npz: %sthere is no array '%s' among the %d in the file%s%s", z->where,
                  name ? name : "NULL", z->count, z->count ? "; the first is " : "",
                  z->count ? z->array[0].name : "");
    else if (!a->values)
        eqnn_fail(z->ctx, "npz: %sarray '%s' has dtype '%s', which is not read", z->where, name,
                  a->dtype);
    else if (dims >= 0 && a->dims != dims)
        eqnn_fail(z->ctx, "npz: %sarray '%s' has %d dimensions, %d are needed", z->where, name,
                  a->dims, dims);
    else return a;
    return NULL;
}

/* ---- writing ---- */

/* The number of elements, or -1 when the shape is not one that can be written. */
static int64_t eqnn__npy_size(const eqnn_array *a)
{
    int64_t count = 1;
    if (a->dims < 0 || a->dims > 8) return -1;
    for (int i = 0; i < a->dims; i++) {
        if (a->shape[i] < 0 || a->shape[i] > 0xffffffff) return -1;
        count *= a->shape[i];
        if (count > 0xffffffff) return -1;
    }
    return count;
}

/* The lowest bytes of u, lowest first: written out, so that they are a single store. */
static void eqnn__npy_store(unsigned char *p, uint64_t u, int bytes)
{
    uint32_t low = (uint32_t)u, high = (uint32_t)(u >> 32);
    p[0] = (unsigned char)low;
    if (bytes == 1) return;
    p[1] = (unsigned char)(low >> 8);
    if (bytes == 2) return;
    p[2] = (unsigned char)(low >> 16), p[3] = (unsigned char)(low >> 24);
    if (bytes == 4) return;
    p[4] = (unsigned char)high, p[5] = (unsigned char)(high >> 8);
    p[6] = (unsigned char)(high >> 16), p[7] = (unsigned char)(high >> 24);
}

/* n numbers as h->kind and h->bytes say, little endian; how many, up to one that does not fit. */
static size_t eqnn__npy_put(unsigned char *p, const eqnn__npy *h, const double *v, size_t n)
{
    int bytes = h->bytes, is_signed = h->kind == 'i';
    double high = ldexp(1, 8 * bytes - is_signed), low = is_signed ? -high : 0;
    uint64_t u = 0;
    for (size_t i = 0; i < n && h->kind == 'f'; i++) {
        float f = (float)v[i];
        uint32_t word;
        if (bytes == 4 && isfinite(v[i]) && !isfinite(f)) return i;
        memcpy(&word, &f, 4);
        memcpy(&u, &v[i], 8);
        eqnn__npy_store(p + i * (size_t)bytes, bytes == 8 ? u : word, bytes);
    }
    for (size_t i = 0; i < n && h->kind != 'f'; i++) {
        double size = fabs(v[i]);
        if (!(v[i] >= low && v[i] < high) || (double)(u = (uint64_t)size) < size) return i;
        eqnn__npy_store(p + i * (size_t)bytes, v[i] < 0 ? ~u + 1 : u, bytes);
    }
    return n;
}

/* The text of the header is filled up with spaces so that the numbers begin at a multiple of 64. */
static void eqnn__npy_put_header(eqnn__blob *b, const eqnn_array *a, const char *dtype)
{
    char text[320];
    int n = snprintf(text, sizeof text, "{'descr': '%s', 'fortran_order': False, 'shape': (",
                     dtype);
    for (int i = 0; i < a->dims; i++)
        n += snprintf(text + n, sizeof text - (size_t)n, "%lld,%s", (long long)a->shape[i],
                      i + 1 < a->dims ? " " : "");
    n += snprintf(text + n, sizeof text - (size_t)n, "), }");
    while ((10 + n + 1) % 64 != 0) text[n++] = ' ';
    text[n++] = '\n';
    eqnn__blob_put(b, "\x93NUMPY\1", 8); /* version 1.0; the string's own 0 is the minor one */
    eqnn__blob_number(b, (uint64_t)n, 2);
    eqnn__blob_put(b, text, (size_t)n);
}

static int eqnn__npy_put_array(eqnn_ctx *c, eqnn__blob *b, const eqnn_array *a)
{
    eqnn__npy h;
    int64_t count = eqnn__npy_size(a);
    const char *dtype = a->dtype ? a->dtype : "<f8", *name = a->name ? a->name : "arr";
    memset(&h, 0, sizeof h);
    snprintf(h.dtype, sizeof h.dtype, "%s", dtype);
    eqnn__npy_dtype(&h);
    if (!h.kind || dtype[0] == '>' || (h.kind == 'f' && h.bytes == 2)) {
        eqnn_fail(c, "npz_save: array '%s': dtype '%s' is not written; use <f8 <f4 <i4 <i8 |u1 |b1",
                  name, dtype);
        return 0;
    }
    if (count < 0 || (count > 0 && !a->values)) {
        eqnn_fail(c, "npz_save: array '%s': %s", name, count < 0 ? "a bad shape" : "no values");
        return 0;
    }
    eqnn__npy_put_header(b, a, h.dtype);
    size_t n = (size_t)count, bytes = n * (size_t)h.bytes;
    unsigned char *to = eqnn__blob_room(b, bytes);
    size_t put = to ? eqnn__npy_put(to, &h, a->values, n) : n;
    b->size += to ? bytes : 0;
    if (put == n) return 1;
    eqnn_fail(c, "npz_save: array '%s': %g is no number of dtype '%s'", name, a->values[put],
              dtype);
    return 0;
}

/* What the entry's own header and its line in the directory have in common. Dates are 1980-01-01,
   so that equal numbers give equal files. */
static void eqnn__zip_put_common(eqnn__blob *b, uint32_t crc, size_t size, size_t name)
{
    eqnn__blob_number(b, 20, 2);      /* version needed */
    eqnn__blob_number(b, 0, 2 + 2);   /* no flags, stored */
    eqnn__blob_number(b, 33 << 16, 4);
    eqnn__blob_number(b, crc, 4);
    eqnn__blob_number(b, size, 4);
    eqnn__blob_number(b, size, 4);
    eqnn__blob_number(b, name, 2);
    eqnn__blob_number(b, 0, 2);       /* no extra field */
}

/* One entry into b, its line into the directory d. */
static int eqnn__zip_put(eqnn_ctx *c, eqnn__blob *b, eqnn__blob *d, const eqnn_array *a)
{
    char name[256];
    size_t length = (size_t)snprintf(name, sizeof name, "%s.npy", a->name ? a->name : "arr");
    size_t start = b->size, npy = start + 30 + length;
    if (length >= sizeof name) eqnn_fail(c, "npz_save: a name of %.0f characters", (double)length);
    if (length >= sizeof name) return 0;
    eqnn__blob_put(b, "PK\3\4", 4);
    eqnn__zip_put_common(b, 0, 0, length); /* until the array is there */
    eqnn__blob_put(b, name, length);
    int good = eqnn__npy_put_array(c, b, a);
    if (good && !b->failed) {
        size_t end = b->size, size = end - npy;
        uint32_t crc = eqnn__zip_crc(b->p + npy, size);
        b->size = start + 4;
        eqnn__zip_put_common(b, crc, size, length);
        b->size = end;
        eqnn__blob_put(d, "PK\1\2\24\0", 6);
        eqnn__zip_put_common(d, crc, size, length);
        eqnn__blob_number(d, 0, 2);               /* no comment                  */
        eqnn__blob_number(d, 0, 2 + 2 + 4);       /* first disk, no attributes   */
        eqnn__blob_number(d, start, 4);
        eqnn__blob_put(d, name, length);
    }
    return good;
}

/* Has array i a name that none before it has? */
static int eqnn__npz_new(eqnn_ctx *c, const eqnn_array *arrays, int i)
{
    const char *name = arrays[i].name ? arrays[i].name : "arr";
    for (int k = 0; k < i; k++) {
        if (strcmp(arrays[k].name ? arrays[k].name : "arr", name) != 0) continue;
        eqnn_fail(c, "npz_save: arrays %d and %d are both called '%s'", k, i, name);
        return 0;
    }
    return 1;
}

static int eqnn__npz_pack(eqnn_ctx *c, eqnn__blob *b, eqnn__blob *d, const eqnn_array *arrays,
                          int n)
{
    for (int i = 0; i < n; i++)
        if (!eqnn__npz_new(c, arrays, i) || !eqnn__zip_put(c, b, d, &arrays[i])) return 0;
    size_t start = b->size;
    b->failed |= d->failed;
    if (b->failed) return 1;
    eqnn__blob_put(b, d->p, d->size);
    eqnn__blob_put(b, "PK\5\6\0\0\0", 8);
    eqnn__blob_number(b, (uint64_t)n, 2);
    eqnn__blob_number(b, (uint64_t)n, 2);
    eqnn__blob_number(b, d->size, 4);
    eqnn__blob_number(b, start, 4);
    eqnn__blob_number(b, 0, 2);
    if ((uint64_t)b->size < 0xffffffffu) return 1;
    eqnn_fail(c, "npz_save: more than 4 GB in one file; use several");
    return 0;
}

EQNN_API int eqnn_npz_save(eqnn_ctx *c, const char *path, const eqnn_array *arrays, int n)
{
    eqnn__blob b = { NULL, 0, 0, 0 }, d = { NULL, 0, 0, 0 };
    int good = 0;
    if (eqnn_error(c)) return 0;
    if (!path || n < 0 || n > 65534 || (n > 0 && !arrays))
        eqnn_fail(c, "npz_save: needs a path and 0 to 65534 arrays, got %d", n);
    else
        good = eqnn__npz_pack(c, &b, &d, arrays, n) && eqnn__blob_save(c, path, &b);
    free(b.p);
    free(d.p);
    return good;
}

EQNN_API int eqnn_npy_save(eqnn_ctx *c, const char *path, const eqnn_array *array)
{
    eqnn__blob b = { NULL, 0, 0, 0 };
    if (eqnn_error(c)) return 0;
    if (!path || !array) {
        eqnn_fail(c, "npy_save: needs a path and an array");
        return 0;
    }
    int good = eqnn__npy_put_array(c, &b, array) && eqnn__blob_save(c, path, &b);
    free(b.p);
    return good;
}

/* ---- IDX: a header, then the numbers, highest byte first ---- */

/* The kind and bytes of a number by the third byte of the file; 0: not one of the six. */
static int eqnn__idx_type(eqnn_idx *x, int type)
{
    static const char kinds[8] = "uiiiff";
    static const unsigned char bytes[6] = { 1, 1, 2, 4, 4, 8 }, code[6] = { 8, 9, 11, 12, 13, 14 };
    for (int i = 0; i < 6; i++)
        if (type == code[i]) {
            x->kind = kinds[i];
            x->bytes = bytes[i];
        }
    return x->bytes;
}

/* The header into x, checked against the bytes that are there; where it ends into *start. */
static const char *eqnn__idx_header(eqnn_idx *x, const unsigned char *p, size_t size, size_t *start)
{
    if (size < 4 || p[0] != 0 || p[1] != 0) return "it is not an IDX file";
    if (!eqnn__idx_type(x, p[2])) return "its numbers are of a type that IDX does not have";
    x->dims = p[3];
    if (x->dims < 1 || x->dims > 8) return "it has no dimension, or more than 8";
    *start = 4 + 4 * (size_t)x->dims;
    if (size < *start) return "its header is cut off";
    size_t most = (size - *start) / (size_t)x->bytes, count = 1;
    for (int i = 0; i < x->dims; i++) {
        const unsigned char *d = p + 4 + 4 * i;
        x->shape[i] = (int64_t)d[0] << 24 | (int64_t)d[1] << 16 | (int64_t)d[2] << 8 | d[3];
        if (x->shape[i] == 0) count = 0;
    }
    for (int i = 0; count > 0 && i < x->dims; i++) {
        if ((uint64_t)x->shape[i] > most / count) return "it ends before its numbers do";
        count *= (size_t)x->shape[i];
    }
    x->count = count;
    if (count * (size_t)x->bytes != size - *start) return "it is longer than its header says";
    return NULL;
}

#ifdef EQNN_ZLIB
/* A gzip file, of one member or several, into bytes that grow. */
static const char *eqnn__gzip_inflate(const unsigned char *p, size_t size, eqnn__blob *b)
{
    z_stream s;
    int code = Z_OK;
    memset(&s, 0, sizeof s);
    if (size > 0x7fffffffu) return "too large for one call of zlib";
    if (inflateInit2(&s, 15 + 16) != Z_OK) return "zlib has no memory";
    s.next_in = (Bytef *)(uintptr_t)p;
    s.avail_in = (uInt)size;
    while (code == Z_OK || (code == Z_STREAM_END && s.avail_in > 0)) {
        unsigned char *to = eqnn__blob_room(b, 65536);
        if (!to) break;
        if (code == Z_STREAM_END) inflateReset(&s);
        s.next_out = to;
        s.avail_out = 65536;
        code = inflate(&s, Z_NO_FLUSH);
        b->size += 65536 - s.avail_out;
    }
    inflateEnd(&s);
    if (b->failed) return "no memory for it";
    return code == Z_STREAM_END ? NULL : "its compressed bytes are damaged or cut off";
}
#else
static const char *eqnn__gzip_inflate(const unsigned char *p, size_t size, eqnn__blob *b)
{
    (void)p;
    (void)size;
    (void)b;
    return "it is packed by gzip: build with -DEQNN_ZLIB and link -lz, or unpack it with gunzip";
}
#endif

/* A phrase, or NULL and *out, which owns its numbers. */
static const char *eqnn__idx_read(const unsigned char *p, size_t size, eqnn_idx **out)
{
    eqnn__blob b = { NULL, 0, 0, 0 };
    eqnn_idx head, *x = NULL;
    const char *wrong = NULL;
    size_t start = 0;
    memset(&head, 0, sizeof head);
    if (size > 2 && p[0] == 0x1f && p[1] == 0x8b) {
        wrong = eqnn__gzip_inflate(p, size, &b);
        p = b.p;
        size = b.size;
    }
    if (!wrong) wrong = eqnn__idx_header(&head, p, size, &start);
    if (!wrong) x = (eqnn_idx *)malloc(sizeof *x + (size - start));
    if (x) {
        *x = head;
        memcpy(x + 1, p + start, size - start);
        x->data = (const unsigned char *)(x + 1);
    } else if (!wrong) {
        wrong = "no memory for it";
    }
    free(b.p);
    *out = x;
    return wrong;
}

EQNN_API eqnn_idx *eqnn_idx_parse(eqnn_ctx *c, const void *bytes, size_t size)
{
    eqnn_idx *x = NULL;
    const char *wrong = bytes ? eqnn__idx_read((const unsigned char *)bytes, size, &x)
                              : "there are no bytes";
    if (wrong) eqnn_fail(c, "idx: %s", wrong);
    return x;
}

EQNN_API eqnn_idx *eqnn_idx_open(eqnn_ctx *c, const char *path)
{
    eqnn__blob b = { NULL, 0, 0, 0 };
    eqnn_idx *x = NULL;
    if (!path) {
        eqnn_fail(c, "idx_open: no path");
    } else if (eqnn__blob_read(c, path, &b)) {
        const char *wrong = b.size ? eqnn__idx_read(b.p, b.size, &x) : "it is empty";
        if (wrong) eqnn_fail(c, "idx: '%s': %s", path, wrong);
    }
    free(b.p);
    return x;
}

EQNN_API void eqnn_idx_close(eqnn_idx *x)
{
    free(x);
}

EQNN_API size_t eqnn_idx_values(const eqnn_idx *x, size_t first, size_t n, double *out)
{
    size_t there = x && out && first < x->count ? x->count - first : 0;
    if (n > there) n = there;
    if (n > 0)
        eqnn__npy_numbers(x->data + first * (size_t)x->bytes, n, x->kind, x->bytes, 1, out);
    return n;
}

EQNN_API double eqnn_idx_value(const eqnn_idx *x, size_t i)
{
    double v = NAN;
    eqnn_idx_values(x, i, 1, &v);
    return v;
}

/* ---- text: lines of words, of QM9 and of extended xyz ---- */

typedef struct eqnn__text {
    const unsigned char *p, *end;
    int line;
    const char *wrong; /* the first thing, or NULL ...          */
    char more[64];     /* ... and the word it is about, or less */
} eqnn__text;

/* What is wrong, and the first 40 characters of the word it is about. */
static void eqnn__text_wrong(eqnn__text *t, const char *wrong, const char *word)
{
    char shown[44];
    size_t n = 0;
    if (t->wrong) return;
    for (; n < 40 && word[n]; n++) shown[n] = isprint((unsigned char)word[n]) ? word[n] : '?';
    memcpy(shown + n, word[n] ? "..." : "", word[n] ? 4 : 1);
    t->wrong = wrong;
    if (n > 0) snprintf(t->more, sizeof t->more, ": '%s'", shown);
}

/* The next word of the line, cut to 63 characters; 0 when the line ends. */
static int eqnn__text_word(eqnn__text *t, char word[64])
{
    int n = 0;
    while (t->p < t->end && (*t->p == ' ' || *t->p == '\t' || *t->p == '\r')) t->p++;
    for (; t->p < t->end && !strchr(" \t\r\n", *t->p) && *t->p; t->p++)
        if (n < 63) word[n++] = (char)*t->p;
    if (t->p < t->end && !*t->p) t->wrong = "a zero byte is no text";
    word[n] = 0;
    return n;
}

/* To the beginning of the next line; 0 when the text has ended. */
static int eqnn__text_line(eqnn__text *t)
{
    while (t->p < t->end && *t->p != '\n') t->p++;
    if (t->p >= t->end) return 0;
    t->p++;
    t->line++;
    return 1;
}

static double eqnn__text_number(eqnn__text *t)
{
    char word[64];
    const char *end;
    if (!eqnn__text_word(t, word)) t->wrong = "a line ends before its numbers do";
    double v = eqnn__decimal(word, &end);
    if (end == word || *end)
        eqnn__text_wrong(t, "a word stands where a number is needed", word);
    if (!isfinite(v)) eqnn__text_wrong(t, "a number is too large", word);
    return v;
}

static int eqnn__text_whole(eqnn__text *t, int most)
{
    char text[32];
    double v = eqnn__text_number(t);
    if (v >= 1 && v <= most && v == floor(v)) return (int)v;
    snprintf(text, sizeof text, "%.9g", v);
    eqnn__text_wrong(t, "a count or number is not whole, or out of range", text);
    return 0;
}

/* ---- QM9 ---- */

static int eqnn__qm9_element(eqnn__text *t)
{
    static const char *const names[5] = { "H", "C", "N", "O", "F" };
    static const int charges[5] = { 1, 6, 7, 8, 9 };
    char word[64];
    eqnn__text_word(t, word);
    for (int i = 0; i < 5; i++)
        if (!strcmp(word, names[i])) return charges[i];
    eqnn__text_wrong(t, "an atom is not H, C, N, O or F", word);
    return 0;
}

/* One molecule: its number of atoms; "gdb", its number and 15 numbers; for each atom element, x, y,
   z and a charge that is not read; frequencies; SMILES; InChI. With m->first the numbers are
   written, without they are counted only. */
static void eqnn__qm9_molecule(eqnn__text *t, eqnn_molecules *m)
{
    char word[64];
    int n = eqnn__text_whole(t, 10000), k = m->count;
    if (!t->wrong && (!eqnn__text_line(t) || t->end - t->p < 8 * n)) t->wrong = "it is cut off";
    if (t->wrong) return;
    eqnn__text_word(t, word);
    if (strcmp(word, "gdb")) {
        t->wrong = "the second line of a molecule does not begin with gdb";
        return;
    }
    int number = eqnn__text_whole(t, 100000000);
    if (m->first) m->first[k] = m->atoms, m->number[k] = number;
    for (int i = 0; i < EQNN_QM9_TARGETS && !t->wrong; i++) {
        double v = eqnn__text_number(t);
        if (m->first) m->target[(size_t)k * EQNN_QM9_TARGETS + (size_t)i] = v;
    }
    for (int i = 0; i < n && !t->wrong; i++) {
        if (!eqnn__text_line(t)) t->wrong = "it is cut off";
        int charge = t->wrong ? 0 : eqnn__qm9_element(t), at = m->atoms + i;
        if (m->first) m->charge[at] = charge;
        for (int a = 0; a < 3 && !t->wrong; a++) {
            double v = eqnn__text_number(t);
            if (m->first) m->pos[3 * (size_t)at + (size_t)a] = v;
        }
    }
    for (int i = 0; i < 3 && !t->wrong; i++)
        if (!eqnn__text_line(t) || t->p >= t->end) t->wrong = "its last three lines are missing";
    if (t->wrong) return;
    eqnn__text_line(t);
    m->atoms += n;
    m->count++;
}

/* All molecules of a text. */
static void eqnn__qm9_walk(eqnn__text *t, eqnn_molecules *m)
{
    while (!t->wrong) {
        while (t->p < t->end && isspace(*t->p)) t->line += *t->p++ == '\n';
        if (t->p >= t->end) return;
        if (m->count > 100000000 || m->atoms > 1000000000) t->wrong = "there are too many of them";
        else eqnn__qm9_molecule(t, m);
    }
}

/* An octal number of a tar header. */
static uint64_t eqnn__tar_number(const unsigned char *p, int n)
{
    uint64_t v = 0;
    for (int i = 0; i < n && (p[i] == ' ' || (p[i] >= '0' && p[i] <= '7')); i++)
        if (p[i] != ' ') v = v << 3 | (uint64_t)(p[i] - '0');
    return v;
}

static int eqnn__tar_is(const unsigned char *p, size_t size)
{
    return size >= 512 && memcmp(p + 257, "ustar", 5) == 0;
}

/* Text, or the files of an archive: blocks of 512 bytes, a header (name, size at 124, type at 156)
   and the bytes of the file, filled up. Folders and notes are passed over. */
static void eqnn__qm9_all(eqnn__text *t, const unsigned char *p, size_t size, eqnn_molecules *m)
{
    memset(t, 0, sizeof *t);
    t->p = p;
    t->end = p + size;
    if (!eqnn__tar_is(p, size)) {
        eqnn__qm9_walk(t, m);
        return;
    }
    for (size_t at = 0; eqnn__tar_is(p + at, size - at) && !t->wrong;) {
        uint64_t length = eqnn__tar_number(p + at + 124, 12);
        const unsigned char *head = p + at;
        at += 512;
        t->p = p + at;
        t->line = 0;
        if (length > size - at) {
            t->wrong = "the archive is cut off";
            return;
        }
        t->end = t->p + length;
        if (head[156] == '0' || head[156] == 0) eqnn__qm9_walk(t, m);
        size_t whole = ((size_t)length + 511) / 512 * 512;
        at += whole < size - at ? whole : size - at;
    }
}

EQNN_API void eqnn_molecules_free(eqnn_molecules *m)
{
    if (!m) return;
    free(m->first);
    free(m->number);
    free(m->charge);
    free(m->pos);
    free(m->target);
    free(m);
}

EQNN_API int eqnn_molecules_drop(eqnn_molecules *m, const int *numbers, int n)
{
    int count = 0, atoms = 0, all = m ? m->count : 0;
    for (int i = 0; i < all; i++) {
        int begin = m->first[i], own = m->first[i + 1] - begin, listed = 0;
        for (int k = 0; k < n && !listed; k++) listed = numbers[k] == m->number[i];
        if (listed) continue;
        m->first[count] = atoms;
        m->number[count] = m->number[i];
        memmove(m->charge + atoms, m->charge + begin, (size_t)own * sizeof *m->charge);
        memmove(m->pos + 3 * (size_t)atoms, m->pos + 3 * (size_t)begin,
                3 * (size_t)own * sizeof *m->pos);
        memmove(m->target + EQNN_QM9_TARGETS * (size_t)count,
                m->target + EQNN_QM9_TARGETS * (size_t)i, EQNN_QM9_TARGETS * sizeof *m->target);
        atoms += own;
        count++;
    }
    if (!m) return 0;
    m->first[count] = m->atoms = atoms;
    m->count = count;
    return all - count;
}

/* Room for so many of them; the counts begin at 0. */
static eqnn_molecules *eqnn__molecules_make(eqnn_ctx *c, int count, int atoms)
{
    eqnn_molecules *m = (eqnn_molecules *)calloc(1, sizeof *m);
    size_t n = (size_t)count + 1, a = (size_t)atoms + 1;
    if (m) {
        m->first = (int *)calloc(n, sizeof(int));
        m->number = (int *)calloc(n, sizeof(int));
        m->charge = (int *)calloc(a, sizeof(int));
        m->pos = (double *)calloc(a, 3 * sizeof(double));
        m->target = (double *)calloc(n, EQNN_QM9_TARGETS * sizeof(double));
    }
    if (m && m->first && m->number && m->charge && m->pos && m->target) return m;
    eqnn_molecules_free(m);
    eqnn_fail(c, "qm9: no memory for %d molecules of %d atoms", count, atoms);
    return NULL;
}

/* Counted first, then written. */
EQNN_API eqnn_molecules *eqnn_qm9_parse(eqnn_ctx *c, const void *bytes, size_t size)
{
    eqnn__text t;
    eqnn_molecules counted, *m = NULL;
    memset(&counted, 0, sizeof counted);
    if (!bytes || size < 1) {
        eqnn_fail(c, "qm9: there are no bytes");
        return NULL;
    }
    eqnn__qm9_all(&t, (const unsigned char *)bytes, size, &counted);
    if (!t.wrong && counted.count == 0) t.wrong = "there is no molecule";
    if (t.wrong) {
        eqnn_fail(c, "qm9: molecule %d of the file, line %d: %s%s", counted.count + 1, t.line + 1,
                  t.wrong, t.more);
        return NULL;
    }
    m = eqnn__molecules_make(c, counted.count, counted.atoms);
    if (!m) return NULL;
    eqnn__qm9_all(&t, (const unsigned char *)bytes, size, m);
    m->first[m->count] = m->atoms;
    return m;
}

/* The arrays of an npz file, whose shapes must agree: atoms of each molecule, or an error. */
static eqnn_molecules *eqnn__qm9_from(eqnn_ctx *c, const eqnn_npz *z)
{
    const eqnn_array *index = eqnn_npz_need(z, "index", 1), *n = eqnn_npz_need(z, "n_atoms", 1);
    const eqnn_array *charge = eqnn_npz_need(z, "z", 2), *pos = eqnn_npz_need(z, "pos", 3);
    const eqnn_array *target = eqnn_npz_need(z, "targets", 2);
    if (!index || !n || !charge || !pos || !target) return NULL;
    int64_t count = index->shape[0], most = charge->shape[1], atoms = 0;
    int good = n->shape[0] == count && charge->shape[0] == count && pos->shape[0] == count
               && target->shape[0] == count && pos->shape[1] == most && pos->shape[2] == 3
               && target->shape[1] == EQNN_QM9_TARGETS && count < 100000000;
    if (!good) eqnn_fail(c, "qm9: the shapes of index, n_atoms, z, pos and targets disagree");
    for (int64_t i = 0; good && i < count; i++) {
        double own = n->values[i];
        good = own >= 0 && own <= (double)most && own == floor(own) &&
               fabs(index->values[i]) < 1e9 && index->values[i] == floor(index->values[i]);
        for (int64_t k = 0; good && k < (int64_t)own; k++) {
            const double *at = pos->values + 3 * (i * most + k), q = charge->values[i * most + k];
            good = q >= 1 && q <= 118 && q == floor(q) && isfinite(at[0]) && isfinite(at[1]) &&
                   isfinite(at[2]);
        }
        if (good) atoms += (int64_t)own;
        if (!good || atoms > 1000000000)
            eqnn_fail(c, "qm9: molecule %.0f: its number, its n_atoms, a charge or a position is "
                         "out of range", (double)i);
    }
    if (eqnn_error(c)) return NULL;
    eqnn_molecules *m = eqnn__molecules_make(c, (int)count, (int)atoms);
    for (int i = 0; m && i < (int)count; i++) {
        int own = (int)n->values[i];
        m->number[i] = (int)index->values[i];
        for (int k = 0; k < own; k++) {
            size_t from = (size_t)i * (size_t)most + (size_t)k, to = (size_t)(m->atoms + k);
            m->charge[to] = (int)charge->values[from];
            memcpy(m->pos + 3 * to, pos->values + 3 * from, 3 * sizeof(double));
        }
        m->atoms += own;
        m->first[i + 1] = m->atoms;
    }
    if (m) memcpy(m->target, target->values, target->count * sizeof(double));
    if (m) m->count = (int)count;
    return m;
}

EQNN_API eqnn_molecules *eqnn_qm9_open(eqnn_ctx *c, const char *path)
{
    eqnn__blob b = { NULL, 0, 0, 0 };
    eqnn_npz *z = NULL;
    eqnn_molecules *m = NULL;
    if (eqnn__npz_or_bytes(c, "qm9_open", path, &z, &b))
        m = z ? eqnn__qm9_from(c, z) : eqnn_qm9_parse(c, b.p, b.size);
    eqnn_npz_close(z);
    free(b.p);
    return m;
}

/* Where a task stands among the 15, which reference it has (0: none) and its unit. */
typedef struct eqnn__qm9_task {
    const char *name, *unit;
    int column, reference;
    double factor;
} eqnn__qm9_task;

static const eqnn__qm9_task *eqnn__qm9_find(const char *name)
{
    static const eqnn__qm9_task tasks[12] = {
        { "alpha", "bohr^3", 4, 0, 1 },         { "gap", "eV", 7, 0, 27.2114 },
        { "homo", "eV", 5, 0, 27.2114 },        { "lumo", "eV", 6, 0, 27.2114 },
        { "mu", "debye", 3, 0, 1 },             { "Cv", "cal/(mol K)", 14, 5, 1 },
        { "G", "eV", 13, 4, 27.2114 },          { "H", "eV", 12, 3, 27.2114 },
        { "r2", "bohr^2", 8, 0, 1 },            { "U", "eV", 11, 2, 27.2114 },
        { "U0", "eV", 10, 1, 27.2114 },         { "zpve", "meV", 9, 0, 27211.4 }
    };
    for (int i = 0; i < 12; i++)
        if (name && !strcmp(name, tasks[i].name)) return &tasks[i];
    return NULL;
}

/* The place of an element among H C N O F, or -1. */
static int eqnn__qm9_species(int charge)
{
    return charge == 1 ? 0 : charge >= 6 && charge <= 9 ? charge - 5 : -1;
}

/* U0, U, H, G (hartree) and Cv (cal/mol K) of free atoms, as published with the data; the zpve of
   an atom is 0. */
static double eqnn__qm9_atom(int reference, int species)
{
    static const double free_atom[5][5] = {
        { -.500273, -37.846772, -54.583861, -75.064579, -99.718730 },
        { -.498857, -37.845355, -54.582445, -75.063163, -99.717314 },
        { -.497912, -37.844411, -54.581501, -75.062219, -99.716370 },
        { -.510927, -37.861317, -54.598897, -75.079532, -99.733544 },
        { 2.981, 2.981, 2.981, 2.981, 2.981 }
    };
    return free_atom[reference - 1][species];
}

EQNN_API int eqnn_qm9_target(eqnn_ctx *c, const eqnn_molecules *m, const char *task, double *out,
                             const char **unit)
{
    const eqnn__qm9_task *t = eqnn__qm9_find(task);
    if (eqnn_error(c) || !m) return 0;
    if (!t) {
        eqnn_fail(c, "qm9: there is no task '%s'; there are alpha, gap, homo, lumo, mu, Cv, G, H, "
                  "r2, U, U0 and zpve", task ? task : "NULL");
        return 0;
    }
    for (int i = 0; i < m->count; i++) {
        double v = m->target[(size_t)i * EQNN_QM9_TARGETS + (size_t)t->column];
        for (int k = m->first[i]; t->reference && k < m->first[i + 1]; k++) {
            int species = eqnn__qm9_species(m->charge[k]);
            if (species >= 0) v -= eqnn__qm9_atom(t->reference, species);
            else v = NAN;
        }
        out[i] = v * t->factor;
        if (isfinite(out[i])) continue;
        eqnn_fail(c, "qm9: %s of molecule %d (number %d) is not a number, or an atom of it is not "
                  "H, C, N, O or F", task, i, m->number[i]);
        return 0;
    }
    if (unit) *unit = t->unit;
    return 1;
}

EQNN_API int eqnn_charge_features(eqnn_ctx *c, int n, const int *charge, double *out)
{
    if (eqnn_error(c)) return 0;
    for (int i = 0; i < n; i++) {
        int species = eqnn__qm9_species(charge[i]);
        double q = charge[i] / 9.0, *row = out + 15 * (size_t)i;
        if (species < 0) {
            eqnn_fail(c, "charge_features: atom %d has charge %d; 1, 6, 7, 8 and 9 are known", i,
                      charge[i]);
            return 0;
        }
        for (int k = 0; k < 15; k++) row[k] = 0;
        row[3 * species] = 1;
        row[3 * species + 1] = q;
        row[3 * species + 2] = q * q;
    }
    return 1;
}

/* ---- configurations ---- */

/* Two letters each. */
static const char eqnn__elements[] =
    "H HeLiBeB C N O F NeNaMgAlSiP S ClArK CaScTiV CrMnFeCoNiCuZnGaGeAsSeBrKrRbSrY ZrNbMoTcRuRhPdAg"
    "CdInSnSbTeI XeCsBaLaCePrNdPmSmEuGdTbDyHoErTmYbLuHfTaW ReOsIrPtAuHgTlPbBiPoAtRnFrRaAcThPaU NpPu"
    "AmCmBkCfEsFmMdNoLrRfDbSgBhHsMtDsRgCnNhFlMcLvTsOg";

EQNN_API int eqnn_element(const char *symbol)
{
    size_t n = symbol ? strlen(symbol) : 0;
    if (n < 1 || n > 2 || symbol[n - 1] == ' ') return 0;
    char second = n > 1 ? symbol[1] : ' ';
    for (int z = 1; z <= 118; z++) {
        const char *own = eqnn__elements + 2 * (z - 1);
        if (own[0] == symbol[0] && own[1] == second) return z;
    }
    return 0;
}

EQNN_API const char *eqnn_element_symbol(int charge, char text[3])
{
    if (charge < 1 || charge > 118 || !text) return NULL;
    memcpy(text, eqnn__elements + 2 * (charge - 1), 2);
    text[text[1] == ' ' ? 1 : 2] = 0;
    return text;
}

EQNN_API void eqnn_frames_free(eqnn_frames *m)
{
    if (!m) return;
    free(m->first);
    free(m->charge);
    free(m->pos);
    free(m->force);
    free(m->energy);
    free(m->cell);
    free(m);
}

/* Room for so many of them; the counts begin at 0, energies and forces as if there were none. */
static eqnn_frames *eqnn__frames_make(eqnn_ctx *c, int count, int atoms)
{
    eqnn_frames *m = (eqnn_frames *)calloc(1, sizeof *m);
    size_t n = (size_t)count + 1, a = (size_t)atoms + 1;
    if (m) {
        m->first = (int *)calloc(n, sizeof(int));
        m->charge = (int *)calloc(a, sizeof(int));
        m->pos = (double *)calloc(a, 3 * sizeof(double));
        m->force = (double *)calloc(a, 3 * sizeof(double));
        m->energy = (double *)calloc(n, sizeof(double));
        m->cell = (double *)calloc(n, 9 * sizeof(double));
    }
    if (!m || !m->first || !m->charge || !m->pos || !m->force || !m->energy || !m->cell) {
        eqnn_frames_free(m);
        eqnn_fail(c, "frames: no memory for %d of them with %d atoms", count, atoms);
        return NULL;
    }
    for (int i = 0; i < count; i++) m->energy[i] = (double)NAN;
    for (size_t i = 0; i < 3 * (size_t)atoms; i++) m->force[i] = (double)NAN;
    return m;
}

/* What the second line of a frame says: its energy (NaN: nothing), its lattice, and in which word
   of an atom's line things begin (-1: in none). */
typedef struct eqnn__xyz_head {
    double energy, cell[9];
    int words, species, charge, pos, force, given; /* given: by Properties, which says them all */
} eqnn__xyz_head;

/* Are they the same but for capitals? b has none. */
static int eqnn__xyz_same(const char *a, const char *b)
{
    while (*a && tolower((unsigned char)*a) == *b) a++, b++;
    return *a == *b;
}

/* The next pair key=value of the line: the key, cut to 63 characters, and a text that holds the
   value (empty where there is none). 0 when the line ends. */
static int eqnn__xyz_pair(eqnn__text *t, char key[64], eqnn__text *value)
{
    int n = 0, depth = 0;
    while (t->p < t->end && strchr(" \t\r", *t->p) && *t->p) t->p++;
    if (t->p >= t->end || *t->p == '\n') return 0;
    for (; t->p < t->end && *t->p && !strchr(" \t\r\n=", *t->p); t->p++)
        if (n < 63) key[n++] = (char)*t->p;
    key[n] = 0;
    *value = *t;
    value->end = value->p;
    while (t->p < t->end && (*t->p == ' ' || *t->p == '\t')) t->p++;
    if (t->p < t->end && !*t->p) t->wrong = "a zero byte is no text";
    if (t->wrong || t->p >= t->end || *t->p != '=') return !t->wrong;
    do t->p++; while (t->p < t->end && (*t->p == ' ' || *t->p == '\t'));
    int open = t->p < t->end && *t->p ? *t->p : ' ';
    int close = open == '{' ? '}' : open == '[' ? ']' : open == '"' || open == '\'' ? open : 0;
    if (close) t->p++;
    for (value->p = t->p; t->p < t->end && *t->p != '\n' && *t->p; t->p++) {
        if (close ? *t->p == close && depth == 0 : strchr(" \t\r", *t->p) != NULL) break;
        if (close && close != open) depth += (*t->p == open) - (*t->p == close);
        if (close == open && *t->p == '\\' && t->p + 1 < t->end && t->p[1] != '\n') t->p++;
    }
    value->end = t->p;
    if (!close) return 1;
    if (t->p >= t->end || *t->p != close) t->wrong = "a quote or bracket is not closed";
    else t->p++;
    return !t->wrong;
}

/* Where a column of that name is kept (NULL: it is not read), and whether it is a vector. */
static int *eqnn__xyz_column(eqnn__xyz_head *h, const char *name, int *vector)
{
    static const char *const names[8] = { "pos", "positions", "forces", "force", "ref_forces",
                                          "species", "z", "numbers" };
    int i = 0;
    while (i < 8 && !eqnn__xyz_same(name, names[i])) i++;
    *vector = i < 5;
    return i < 2 ? &h->pos : i < 5 ? &h->force : i < 6 ? &h->species : i < 8 ? &h->charge : NULL;
}

/* "species:S:1:pos:R:3:forces:R:3" */
static void eqnn__xyz_properties(eqnn__text *t, eqnn__text v, eqnn__xyz_head *h)
{
    char part[3][64];
    int vector = 0;
    h->words = 0;
    h->species = h->charge = h->pos = h->force = -1;
    h->given = 1;
    while (v.p < v.end && !t->wrong) {
        for (int i = 0; i < 3; i++) {
            int n = 0;
            for (; v.p < v.end && *v.p != ':'; v.p++)
                if (n < 63) part[i][n++] = (char)*v.p;
            part[i][n] = 0;
            if (v.p < v.end) v.p++;
        }
        long count = strtol(part[2], NULL, 10);
        int *column = eqnn__xyz_column(h, part[0], &vector);
        if (column && *column >= 0)
            eqnn__text_wrong(t, "Properties has two columns of the same meaning", part[0]);
        if (column) *column = h->words;
        if (count < 1 || count > 1000 || h->words > 100000 || (vector && count != 3))
            eqnn__text_wrong(t, "Properties is not name:type:count:..., or positions or forces are "
                                "not R:3", part[0]);
        else h->words += (int)count;
    }
    if (!t->wrong && (h->pos < 0 || (h->species < 0 && h->charge < 0)))
        t->wrong = "Properties names no positions, or no species";
}

/* Directions along which nothing is repeated have zeros in the cell: pbc="T T F". Anything else
   than three words that say yes or no would make another crystal of it. */
static void eqnn__xyz_periodic(eqnn__text *t, eqnn__text v, double cell[9])
{
    static const char *const words[6] = { "f", "false", "0", "t", "true", "1" };
    char word[64];
    for (int i = 0; i < 4; i++) { /* the fourth must be missing */
        int n = 0, k = 0;
        while (v.p < v.end && *v.p && strchr(" \t\r,", *v.p)) v.p++;
        for (; v.p < v.end && *v.p && !strchr(" \t\r,", *v.p); v.p++)
            if (n < 63) word[n++] = (char)*v.p;
        word[n] = 0;
        while (k < 6 && !eqnn__xyz_same(word, words[k])) k++;
        if ((i < 3) != (n > 0) || (n > 0 && k == 6)) {
            eqnn__text_wrong(t, "pbc is not three of T and F", word);
            return;
        }
        if (i < 3 && k < 3) memset(cell + 3 * i, 0, 3 * sizeof *cell);
    }
}

static void eqnn__xyz_second_line(eqnn__text *t, eqnn__xyz_head *h)
{
    char key[64], word[64];
    eqnn__text v, pbc;
    memset(h, 0, sizeof *h);
    memset(&pbc, 0, sizeof pbc);
    h->energy = (double)NAN;
    h->words = 4, h->pos = 1, h->charge = h->force = -1;
    while (!t->wrong && eqnn__xyz_pair(t, key, &v)) {
        int lattice = eqnn__xyz_same(key, "lattice");
        if (eqnn__xyz_same(key, "properties")) eqnn__xyz_properties(t, v, h);
        if (eqnn__xyz_same(key, "pbc")) pbc = v;
        if (eqnn__xyz_same(key, "energy") || eqnn__xyz_same(key, "ref_energy"))
            h->energy = eqnn__text_number(&v);
        for (int i = 0; i < 9 && lattice && !v.wrong; i++) h->cell[i] = eqnn__text_number(&v);
        if (lattice && !v.wrong && eqnn__text_word(&v, word)) v.wrong = "there are ten";
        if (!v.wrong || t->wrong) continue;
        t->wrong = lattice ? "Lattice is not nine numbers" : v.wrong;
        memcpy(t->more, v.more, sizeof t->more);
    }
    if (pbc.p && !t->wrong) eqnn__xyz_periodic(t, pbc, h->cell);
}

/* The line of atom at of all. */
static void eqnn__xyz_atom(eqnn__text *t, const eqnn__xyz_head *h, eqnn_frames *m, int at)
{
    char word[64];
    int charge = 0;
    for (int w = 0; w < h->words && !t->wrong; w++) {
        if (w == h->pos || w == h->force) {
            double *to = !m->first ? NULL : (w == h->pos ? m->pos : m->force) + 3 * (size_t)at;
            for (int a = 0; a < 3 && !t->wrong; a++) {
                double v = eqnn__text_number(t);
                if (to) to[a] = v;
            }
            w += 2;
        } else if (w == h->charge) {
            charge = eqnn__text_whole(t, 118);
        } else if (!eqnn__text_word(t, word)) {
            if (!t->wrong) t->wrong = "a line ends before its columns do";
        } else if (w == h->species && (charge = eqnn_element(word)) == 0 && h->charge < 0) {
            eqnn__text_wrong(t, "an atom is no element", word);
        }
    }
    if (h->given && !t->wrong && eqnn__text_word(t, word))
        eqnn__text_wrong(t, "a line has more columns than Properties names", word);
    if (m->first) m->charge[at] = charge;
}

/* To the line of atom i of n; says so where the text ends before it. */
static void eqnn__xyz_next(eqnn__text *t, int i, int n)
{
    int line = t->line, more = eqnn__text_line(t);
    const unsigned char *p = t->p;
    while (more && p < t->end && isspace(*p)) p++;
    if (more && p < t->end) return;
    t->line = line;
    t->wrong = "the text ends before its atoms do";
    snprintf(t->more, sizeof t->more, ": %d of %d are there", i, n);
}

/* One frame. With m->first it is written, without it is counted only. */
static void eqnn__xyz_frame(eqnn__text *t, eqnn_frames *m)
{
    eqnn__xyz_head h;
    int n = eqnn__text_whole(t, 100000000), k = m->count;
    if (!t->wrong && !eqnn__text_line(t)) t->wrong = "the text ends before a frame's second line";
    if (t->wrong) return;
    eqnn__xyz_second_line(t, &h);
    for (int i = 0; i < n && !t->wrong; i++) {
        eqnn__xyz_next(t, i, n);
        if (!t->wrong) eqnn__xyz_atom(t, &h, m, m->atoms + i);
    }
    if (t->wrong) return;
    if (m->first) {
        m->first[k] = m->atoms;
        m->energy[k] = h.energy;
        memcpy(m->cell + 9 * (size_t)k, h.cell, sizeof h.cell);
    }
    eqnn__text_line(t);
    m->atoms += n;
    m->count++;
}

static void eqnn__xyz_walk(eqnn__text *t, const void *bytes, size_t size, eqnn_frames *m)
{
    memset(t, 0, sizeof *t);
    t->p = (const unsigned char *)bytes;
    t->end = t->p + size;
    while (!t->wrong) {
        while (t->p < t->end && isspace(*t->p)) t->line += *t->p++ == '\n';
        if (t->p >= t->end) return;
        if (m->atoms > 1000000000) t->wrong = "there are too many atoms";
        else eqnn__xyz_frame(t, m);
    }
}

/* Counted first, then written. */
static eqnn_frames *eqnn__xyz_read(eqnn_ctx *c, const char *path, const void *bytes, size_t size)
{
    eqnn__text t;
    eqnn_frames counted, *m;
    memset(&counted, 0, sizeof counted);
    const char *kind = eqnn__file_kind(bytes, size);
    if (kind)
        eqnn_fail(c, "xyz: %.200s: it looks like %s; configurations are extended xyz or npz", path,
                  kind);
    else if (!bytes || size < 1)
        eqnn_fail(c, "xyz: %.200s: there are no bytes", path);
    if (kind || !bytes || size < 1) return NULL;
    eqnn__xyz_walk(&t, bytes, size, &counted);
    if (!t.wrong && counted.count == 0) t.wrong = "there is no frame";
    if (t.wrong) {
        eqnn_fail(c, "xyz: %s, line %d, frame %d: %s%s", path, t.line + 1, counted.count + 1,
                  t.wrong, t.more);
        return NULL;
    }
    m = eqnn__frames_make(c, counted.count, counted.atoms);
    if (!m) return NULL;
    eqnn__xyz_walk(&t, bytes, size, m);
    m->first[m->count] = m->atoms;
    return m;
}

EQNN_API eqnn_frames *eqnn_xyz_parse(eqnn_ctx *c, const void *bytes, size_t size)
{
    return eqnn__xyz_read(c, "the text", bytes, size);
}

/* The array of one of two names; NULL without an error when it may be missing and is. */
static const eqnn_array *eqnn__frames_array(const eqnn_npz *z, const char *name, const char *other,
                                            int dims, int needed)
{
    if (!eqnn_npz_find(z, name) && eqnn_npz_find(z, other)) name = other;
    return needed || eqnn_npz_find(z, name) ? eqnn_npz_need(z, name, dims) : NULL;
}

/* "[2,21,3]", or "none" of NULL. */
static const char *eqnn__npz_shape(const eqnn_array *a, char text[72])
{
    int n = snprintf(text, 72, "%s", a ? "[" : "none");
    for (int i = 0; a && i < a->dims && n < 48; i++)
        n += snprintf(text + n, 72 - (size_t)n, "%s%lld", i ? "," : "", (long long)a->shape[i]);
    if (a) snprintf(text + n, 72 - (size_t)n, "]");
    return text;
}

/* Are all numbers of an array finite? The first that is not is an error; NULL has none. */
static int eqnn__frames_finite(eqnn_ctx *c, const eqnn_npz *z, const eqnn_array *a)
{
    for (size_t i = 0; a && i < a->count; i++) {
        if (isfinite(a->values[i])) continue;
        eqnn_fail(c, "frames: %snumber %.0f of %s is not finite", z->where, (double)i, a->name);
        return 0;
    }
    return 1;
}

/* The arrays of an npz file, whose shapes must agree; z for all frames, or for each. */
static eqnn_frames *eqnn__frames_from(eqnn_ctx *c, const eqnn_npz *z)
{
    const eqnn_array *pos = eqnn__frames_array(z, "R", "coords", 3, 1);
    const eqnn_array *charge = eqnn__frames_array(z, "z", "nuclear_charges", -1, 1);
    const eqnn_array *energy = eqnn__frames_array(z, "E", "energies", -1, 0);
    const eqnn_array *force = eqnn__frames_array(z, "F", "forces", 3, 0);
    if (eqnn_error(c) || !pos || !charge) return NULL;
    int64_t n = pos->shape[0], own = pos->shape[1];
    size_t each = pos->count / 3;
    int good = pos->shape[2] == 3 && n < 100000000 && own < 100000000 && each < 1000000000 &&
               (charge->count == (size_t)own || charge->count == each) &&
               (!energy || energy->count == (size_t)n) && (!force || force->count == pos->count);
    char shape[4][72];
    if (!good)
        eqnn_fail(c, "frames: %sthe shapes of R, z, E and F disagree: got %s, %s, %s and %s; they "
                  "must be [n,atoms,3], [atoms] or [n,atoms], [n], and that of R", z->where,
                  eqnn__npz_shape(pos, shape[0]), eqnn__npz_shape(charge, shape[1]),
                  eqnn__npz_shape(energy, shape[2]), eqnn__npz_shape(force, shape[3]));
    for (size_t i = 0; good && i < charge->count; i++) {
        double q = charge->values[i];
        good = q >= 1 && q <= 118 && q == floor(q);
        if (!good)
            eqnn_fail(c, "frames: %scharge %.0f of %s is %g", z->where, (double)i, charge->name, q);
    }
    good = good && eqnn__frames_finite(c, z, pos) && eqnn__frames_finite(c, z, energy)
           && eqnn__frames_finite(c, z, force);
    eqnn_frames *m = good ? eqnn__frames_make(c, (int)n, (int)each) : NULL;
    if (!m) return NULL;
    m->count = (int)n, m->atoms = (int)each;
    for (int i = 0; i <= (int)n; i++) m->first[i] = i * (int)own;
    for (size_t i = 0; i < each; i++) m->charge[i] = (int)charge->values[i % charge->count];
    memcpy(m->pos, pos->values, pos->count * sizeof(double));
    if (energy) memcpy(m->energy, energy->values, energy->count * sizeof(double));
    if (force) memcpy(m->force, force->values, force->count * sizeof(double));
    return m;
}

EQNN_API eqnn_frames *eqnn_frames_open(eqnn_ctx *c, const char *path)
{
    eqnn__blob b = { NULL, 0, 0, 0 };
    eqnn_npz *z = NULL;
    eqnn_frames *m = NULL;
    if (eqnn__npz_or_bytes(c, "frames_open", path, &z, &b))
        m = z ? eqnn__frames_from(c, z) : eqnn__xyz_read(c, path, b.p, b.size);
    eqnn_npz_close(z);
    free(b.p);
    return m;
}

/* ---- proteins ---- */

enum { EQNN__PDB_PLACES = 32 };

/* Where an atom of the backbone was seen. */
typedef struct eqnn__pdb_place {
    int atom;  /* 0..3: N CA C O */
    char letter, name[3];
    double occupancy, pos[3];
} eqnn__pdb_place;

/* The walk through a file: what belongs to the residue at hand, and what came before. */
typedef struct eqnn__pdb {
    eqnn_proteins *m;
    char row[81], id[5];       /* the line; the entry's name                  */
    char key[6];               /* chain, number and insertion of the residue  */
    int open, hetero, lines;   /* is there one; of HETATM lines; how many     */
    int places;
    eqnn__pdb_place place[EQNN__PDB_PLACES];
    int chain;                 /* letter of the chain that goes on, or -1     */
    unsigned char ended[256];  /* chains whose TER came                       */
    int models, closed;        /* MODEL lines; the first model is over        */
} eqnn__pdb;

/* A number in n columns, right or left in them; only digits and a point. 1 when it is one. */
static int eqnn__pdb_number(const char *p, int n, double *out)
{
    double digits = 0, scale = 1;
    int i = 0, seen = 0, point = 0, minus = 0;
    while (i < n && p[i] == ' ') i++;
    if (i < n && (p[i] == '-' || p[i] == '+')) minus = p[i++] == '-';
    for (; i < n && ((p[i] >= '0' && p[i] <= '9') || (p[i] == '.' && !point)); i++) {
        if (p[i] == '.') { point = 1; continue; }
        digits = 10 * digits + (p[i] - '0');
        if (point) scale *= 10;
        seen = 1;
    }
    while (i < n && p[i] == ' ') i++;
    *out = (minus ? -digits : digits) / scale;
    return seen && i == n;
}

/* Place of a residue's name among the twenty, or 20. */
static int eqnn__residue_kind(const char *name)
{
    static const char names[] = "ALACYSASPGLUPHEGLYHISILELYSLEUMETASNPROGLNARGSERTHRVALTRPTYR";
    if (memcmp(name, "MSE", 3) == 0) name = "MET"; /* selenium in the place of sulphur */
    for (int k = 0; k < 20; k++)
        if (memcmp(name, names + 3 * k, 3) == 0) return k;
    return 20;
}

/* The letter of the location that is taken. */
static char eqnn__pdb_letter(const eqnn__pdb *f)
{
    char best = ' ';
    double most = -1;
    for (int i = 0; i < f->places; i++) {
        double sum = 0;
        if (f->place[i].letter == ' ') continue;
        for (int k = 0; k < f->places; k++)
            if (f->place[k].letter == f->place[i].letter) sum += f->place[k].occupancy;
        if (sum > most) {
            most = sum;
            best = f->place[i].letter;
        }
    }
    return best;
}

/* The first place of an atom at that location, or anywhere; NULL: it is missing. */
static const eqnn__pdb_place *eqnn__pdb_atom(const eqnn__pdb *f, int atom, char letter)
{
    const eqnn__pdb_place *any = NULL;
    for (int i = 0; i < f->places; i++) {
        const eqnn__pdb_place *p = &f->place[i];
        if (p->atom != atom) continue;
        if (p->letter == ' ' || p->letter == letter) return p;
        if (!any) any = p;
    }
    return any;
}

/* A residue behind the others; m->first NULL: it is only counted. */
static void eqnn__protein_residue(eqnn_proteins *m, int kind, int number, const double *const *at)
{
    for (int k = 0; m->first && k < 12; k++)
        m->pos[12 * (size_t)m->residues + (size_t)k] = at[k / 3] ? at[k / 3][k % 3] : NAN;
    if (m->first) m->kind[m->residues] = kind;
    if (m->first) m->number[m->residues] = number;
    m->residues++;
}

/* A chain begins. */
static void eqnn__pdb_chain(eqnn__pdb *f)
{
    eqnn_proteins *m = f->m;
    char letter[2] = { f->key[0], 0 };
    if (!isalnum((unsigned char)letter[0])) letter[0] = 0;
    if (m->first) m->first[m->chains] = m->residues;
    if (m->first)
        snprintf(m->name[m->chains], sizeof m->name[0], "%s%s%s", f->id,
                 *f->id && *letter ? "_" : "", letter);
    m->chains++;
    f->chain = (unsigned char)f->key[0];
}

/* What was gathered becomes a residue, or is counted as left out. */
static void eqnn__pdb_finish(eqnn__pdb *f)
{
    const eqnn__pdb_place *place[4];
    const double *at[4];
    double number = 0;
    int taken = 0;
    char letter = eqnn__pdb_letter(f);
    if (!f->open) return;
    f->open = 0;
    for (int k = 0; k < 4; k++) {
        place[k] = eqnn__pdb_atom(f, k, letter);
        at[k] = place[k] ? place[k]->pos : NULL;
        taken += place[k] != NULL;
    }
    if (!at[0] || !at[1] || !at[2]) {
        if (f->hetero) f->m->hetero += f->lines;
        else f->m->incomplete++;
        return;
    }
    f->m->alternates += f->places - taken;
    if (f->chain != (unsigned char)f->key[0]) eqnn__pdb_chain(f);
    if (!eqnn__pdb_number(f->key + 1, 4, &number)) number = 0;
    eqnn__protein_residue(f->m, eqnn__residue_kind(place[1]->name), (int)number, at);
}

/* An ATOM or HETATM line: name in columns 13-16, location 17, residue 18-20, chain 22, number
   23-26, insertion 27, x y z 31-54, occupancy 55-60. An alpha carbon is " CA ", calcium "CA  ". */
static void eqnn__pdb_line(eqnn__pdb *f, int length)
{
    static const char *const names[4] = { " N  ", " CA ", " C  ", " O  " };
    const char *row = f->row;
    int hetero = row[0] == 'H', number = length >= 54;
    eqnn__pdb_place p;
    for (int a = 0; a < 3 && number; a++) number = eqnn__pdb_number(row + 30 + 8 * a, 8, &p.pos[a]);
    if (!number) {
        f->m->broken++;
        return;
    }
    if (hetero && f->ended[(unsigned char)row[21]]) {
        f->m->hetero++;
        return;
    }
    if (!f->open || memcmp(f->key, row + 21, sizeof f->key)) {
        eqnn__pdb_finish(f);
        memcpy(f->key, row + 21, sizeof f->key);
        f->open = 1;
        f->places = f->lines = 0;
        f->hetero = hetero;
    }
    f->lines++;
    for (p.atom = 0; p.atom < 4 && memcmp(row + 12, names[p.atom], 4);) p.atom++;
    if (p.atom == 4) return;
    p.letter = row[16];
    memcpy(p.name, row + 17, 3);
    if (!eqnn__pdb_number(row + 54, 6, &p.occupancy)) p.occupancy = 1;
    if (f->places < EQNN__PDB_PLACES) f->place[f->places++] = p;
    else f->m->alternates++;
}

/* One line of any kind; 0 at the END. */
static int eqnn__pdb_record(eqnn__pdb *f, int length)
{
    const char *row = f->row;
    if (!memcmp(row, "MODEL ", 6) && ++f->models > 1) f->m->models++, f->closed = 1;
    if (!memcmp(row, "ENDMDL", 6) || !memcmp(row, "END   ", 6)) {
        eqnn__pdb_finish(f);
        f->closed = 1;
    }
    if (f->closed) return memcmp(row, "END   ", 6) != 0;
    if (!memcmp(row, "ATOM  ", 6) || !memcmp(row, "HETATM", 6)) eqnn__pdb_line(f, length);
    else if (!memcmp(row, "TER   ", 6)) {
        eqnn__pdb_finish(f);
        if (f->chain >= 0) f->ended[f->chain] = 1;
        f->chain = -1;
    } else if (!memcmp(row, "HEADER", 6)) {
        for (int k = 0, n = 0; k < 4; k++)
            if (isalnum((unsigned char)row[62 + k])) f->id[n++] = row[62 + k], f->id[n] = 0;
    }
    return 1;
}

/* All lines. With m->first the numbers are written, without they are counted only. */
static void eqnn__pdb_walk(const unsigned char *p, size_t size, eqnn_proteins *m)
{
    eqnn__pdb f;
    memset(&f, 0, sizeof f);
    f.m = m;
    f.chain = -1;
    for (size_t at = 0; at < size;) {
        size_t length = 0;
        while (at + length < size && p[at + length] != '\n') length++;
        size_t kept = length < 80 ? length : 80;
        memset(f.row, ' ', sizeof f.row);
        memcpy(f.row, p + at, kept);
        if (kept && f.row[kept - 1] == '\r') f.row[--kept] = ' ';
        at += length + 1;
        if (!eqnn__pdb_record(&f, (int)kept)) return;
    }
    eqnn__pdb_finish(&f);
}

EQNN_API void eqnn_proteins_free(eqnn_proteins *m)
{
    if (!m) return;
    free(m->first);
    free(m->name);
    free(m->kind);
    free(m->number);
    free(m->pos);
    free(m);
}

/* Room for so many of them; the counts begin at 0. */
static eqnn_proteins *eqnn__proteins_make(eqnn_ctx *c, int chains, int residues)
{
    eqnn_proteins *m = (eqnn_proteins *)calloc(1, sizeof *m);
    size_t n = (size_t)chains + 1, r = (size_t)residues + 1;
    if (m) {
        m->first = (int *)calloc(n, sizeof(int));
        m->name = (char (*)[16])calloc(n, 16);
        m->kind = (int *)calloc(r, sizeof(int));
        m->number = (int *)calloc(r, sizeof(int));
        m->pos = (double *)calloc(r, 12 * sizeof(double));
    }
    if (m && m->first && m->name && m->kind && m->number && m->pos) return m;
    eqnn_proteins_free(m);
    eqnn_fail(c, "proteins: no memory for %d chains of %d residues", chains, residues);
    return NULL;
}

/* Counted first, then written. */
EQNN_API eqnn_proteins *eqnn_pdb_parse(eqnn_ctx *c, const void *bytes, size_t size)
{
    eqnn_proteins counted, *m;
    memset(&counted, 0, sizeof counted);
    if (!bytes || size > INT_MAX) {
        eqnn_fail(c, "pdb: %s", bytes ? "the file is larger than 2 GB" : "there are no bytes");
        return NULL;
    }
    eqnn__pdb_walk((const unsigned char *)bytes, size, &counted);
    if (counted.residues == 0) {
        eqnn_fail(c, "pdb: there is no residue with N, CA and C (%d incomplete, %d broken lines, "
                  "%d HETATM lines)", counted.incomplete, counted.broken, counted.hetero);
        return NULL;
    }
    m = eqnn__proteins_make(c, counted.chains, counted.residues);
    if (!m) return NULL;
    eqnn__pdb_walk((const unsigned char *)bytes, size, m);
    m->first[m->chains] = m->residues;
    return m;
}

/* The residues of a chain in arrays; those without N, CA and C are counted as incomplete. */
static void eqnn__protein_arrays(eqnn_proteins *m, const double *seq, const double *coords, int own)
{
    for (int i = 0; i < own; i++) {
        const double *x = coords + 12 * (size_t)i, *at[4];
        int finite = 1, kind = seq[i] >= 0 && seq[i] < 20 ? (int)seq[i] : 20;
        for (int k = 0; k < 9; k++) finite = finite && isfinite(x[k]);
        for (int k = 0; k < 4; k++) at[k] = x + 3 * k;
        if (!isfinite(x[9]) || !isfinite(x[10]) || !isfinite(x[11])) at[3] = NULL;
        if (finite) eqnn__protein_residue(m, kind, i + 1, at);
        else m->incomplete++;
    }
}

/* The arrays of an npz file, whose shapes must agree. */
static eqnn_proteins *eqnn__protein_from(eqnn_ctx *c, const eqnn_npz *z)
{
    const eqnn_array *n = eqnn_npz_need(z, "n_res", 1), *seq = eqnn_npz_need(z, "seq", 1);
    const eqnn_array *x = eqnn_npz_need(z, "coords", 3);
    if (!n || !seq || !x) return NULL;
    double all = 0;
    int good = x->shape[0] == seq->shape[0] && x->shape[1] == 4 && x->shape[2] == 3
               && seq->shape[0] < 100000000 && n->shape[0] < 100000000;
    for (int64_t i = 0; good && i < n->shape[0]; i++) {
        good = n->values[i] >= 0 && n->values[i] == floor(n->values[i]);
        all += n->values[i];
    }
    if (!good || !(fabs(all - (double)seq->shape[0]) < 0.5)) {
        eqnn_fail(c, "proteins: the shapes of n_res, seq and coords [residues][4][3] disagree");
        return NULL;
    }
    eqnn_proteins *m = eqnn__proteins_make(c, (int)n->shape[0], (int)seq->shape[0]);
    int at = 0;
    for (int i = 0; m && i < (int)n->shape[0]; i++) {
        int own = (int)n->values[i];
        snprintf(m->name[i], sizeof m->name[i], "%d", i + 1);
        eqnn__protein_arrays(m, seq->values + at, x->values + 12 * (size_t)at, own);
        at += own;
        m->first[++m->chains] = m->residues;
    }
    if (!m || m->residues > 0) return m;
    eqnn_fail(c, "proteins: there is no residue with N, CA and C");
    eqnn_proteins_free(m);
    return NULL;
}

EQNN_API eqnn_proteins *eqnn_protein_open(eqnn_ctx *c, const char *path)
{
    eqnn__blob b = { NULL, 0, 0, 0 };
    eqnn_npz *z = NULL;
    eqnn_proteins *m = NULL;
    if (eqnn__npz_or_bytes(c, "protein_open", path, &z, &b))
        m = z ? eqnn__protein_from(c, z) : eqnn_pdb_parse(c, b.p, b.size);
    eqnn_npz_close(z);
    free(b.p);
    return m;
}

/* Those of m behind the ones that are in to, which has room. */
static void eqnn__proteins_append(eqnn_proteins *to, const eqnn_proteins *m)
{
    size_t r = (size_t)m->residues, at = (size_t)to->residues;
    memcpy(to->name + to->chains, m->name, (size_t)m->chains * sizeof *m->name);
    memcpy(to->kind + at, m->kind, r * sizeof *m->kind);
    memcpy(to->number + at, m->number, r * sizeof *m->number);
    memcpy(to->pos + 12 * at, m->pos, 12 * r * sizeof *m->pos);
    for (int i = 0; i <= m->chains; i++) to->first[to->chains + i] = to->residues + m->first[i];
    to->chains += m->chains;
    to->residues += m->residues;
    to->models += m->models;
    to->alternates += m->alternates;
    to->hetero += m->hetero;
    to->incomplete += m->incomplete;
    to->broken += m->broken;
}

EQNN_API eqnn_proteins *eqnn_proteins_join(eqnn_ctx *c, const eqnn_proteins *a,
                                           const eqnn_proteins *b)
{
    int chains = a ? a->chains : 0, residues = a ? a->residues : 0;
    if (!b || b->chains > INT_MAX - 1 - chains || b->residues > INT_MAX / 12 - residues) {
        if (b) eqnn_fail(c, "proteins: too many of them");
        return NULL;
    }
    eqnn_proteins *m = eqnn__proteins_make(c, chains + b->chains, residues + b->residues);
    if (m && a) eqnn__proteins_append(m, a);
    if (m) eqnn__proteins_append(m, b);
    return m;
}

/* ------------------------------------------------------------------------------------------------
   2 >>generators   Random numbers are a function of (seed, stream, index) and of nothing else, so
                    the data does not change with what the program did before.
   ---------------------------------------------------------------------------------------------- */

/* What a random number is for: two of different streams have nothing to do with each other. From
   EPOCH on every epoch of batches has its own; what needs one for each example adds its number in
   higher bits. */
enum {
    EQNN__STREAM_BEADS = 1, EQNN__STREAM_VELOCITIES, EQNN__STREAM_SPLIT, EQNN__STREAM_INERTIA,
    EQNN__STREAM_O5, EQNN__STREAM_PARTICLE, EQNN__STREAM_SCRAMBLE, EQNN__STREAM_SPRINGS,
    EQNN__STREAM_OSCILLATOR, EQNN__STREAM_CHUNK, EQNN__STREAM_COUPLED, EQNN__STREAM_PLANETS,
    EQNN__STREAM_CONSTELLATION, EQNN__STREAM_IMAGE, EQNN__STREAM_AUGMENT, EQNN__STREAM_EPOCH
};

/* 64 random bits: the finaliser of SplitMix64 (Steele, Lea, Flood 2014), twice. */
static uint64_t eqnn__data_bits(uint64_t seed, uint64_t stream, uint64_t index)
{
    uint64_t z = seed * 0x9e3779b97f4a7c15u + stream * 0xd1b54a32d192ed03u + 0x632be59bd9b4e019u;
    return eqnn__mix64(eqnn__mix64(z) + index * 0x9e3779b97f4a7c15u);
}

/* Uniform in [0,1): 53 bits. */
static double eqnn__data_uniform(uint64_t seed, uint64_t stream, uint64_t index)
{
    return (double)(eqnn__data_bits(seed, stream, index) >> 11) / 9007199254740992.0; /* 2^53 */
}

/* N(0,1) from two uniform numbers, draws 2 index and 2 index + 1 of the stream (Box, Muller 1958);
   half a unit keeps the logarithm finite. */
static double eqnn__data_normal(uint64_t seed, uint64_t stream, uint64_t index)
{
    double u = eqnn__data_uniform(seed, stream, 2 * index) + 0.5 / 9007199254740992.0;
    double v = eqnn__data_uniform(seed, stream, 2 * index + 1);
    return sqrt(-2 * log(u)) * cos(2 * EQNN__PI * v);
}

static double eqnn__data_or(double value, double otherwise)
{
    return value != 0 ? value : otherwise;
}

static eqnn_chain_opts eqnn__chain_defaults(const eqnn_chain_opts *opts, const eqnn_ctx *c)
{
    eqnn_chain_opts o;
    memset(&o, 0, sizeof o);
    if (opts) o = *opts;
    if (!o.beads) o.beads = 12;
    if (!o.frames) o.frames = 2048;
    if (!o.substeps) o.substeps = 16;
    if (!o.settle) o.settle = 300;
    if (o.settle < 0) o.settle = 0;
    o.temperature = eqnn__data_or(o.temperature, 3.8e-5);
    o.k = eqnn__data_or(o.k, 3.598e-3);
    o.r0 = eqnn__data_or(o.r0, 1.0 / 3);
    o.ka = eqnn__data_or(o.ka, 1.438e-4);
    o.theta0 = eqnn__data_or(o.theta0, 2 * EQNN__PI / 3);
    o.epsilon = o.epsilon < 0 ? 0 : eqnn__data_or(o.epsilon, 1.41e-5);
    o.sigma = eqnn__data_or(o.sigma, 1.0 / 6);
    if (!o.seed && c) o.seed = eqnn_seed(c);
    return o;
}

static double eqnn__dot3(const double *a, const double *b)
{
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
}

static void eqnn__cross3(const double *a, const double *b, double *out)
{
    out[0] = a[1] * b[2] - a[2] * b[1];
    out[1] = a[2] * b[0] - a[0] * b[2];
    out[2] = a[0] * b[1] - a[1] * b[0];
}

/* Adds s d to the force on i and takes it from j. */
static void eqnn__chain_push(double *force, int i, int j, const double d[3], double s)
{
    for (int m = 0; m < 3; m++) {
        force[3 * i + m] += s * d[m];
        force[3 * j + m] -= s * d[m];
    }
}

/* k/2 (d - r0)^2 for d = |x_i - x_j|; the force on i is -k (d - r0) (x_i - x_j) / d */
static double eqnn__chain_bond(const eqnn_chain_opts *o, const double *x, int i, int j,
                               double *force)
{
    double r[3];
    for (int m = 0; m < 3; m++) r[m] = x[3 * i + m] - x[3 * j + m];
    double d = sqrt(eqnn__dot3(r, r)), stretch = d - o->r0;
    if (force && d > 0) eqnn__chain_push(force, i, j, r, -o->k * stretch / d);
    return 0.5 * o->k * stretch * stretch;
}

/* ka/2 (theta - theta0)^2 at bead j between i and l. With u = x_i - x_j, v = x_l - x_j:

       cos theta = u.v / |u||v|        d theta / du = (u cos theta |v|/|u| - v) / (|u||v| sin theta)

   A straight angle is a cusp of this energy; there sin theta is kept above 1e-8. */
static double eqnn__chain_angle(const eqnn_chain_opts *o, const double *x, int j, double *force)
{
    double u[3], v[3], cross[3];
    for (int m = 0; m < 3; m++) {
        u[m] = x[3 * (j - 1) + m] - x[3 * j + m];
        v[m] = x[3 * (j + 1) + m] - x[3 * j + m];
    }
    eqnn__cross3(u, v, cross);
    double uu = eqnn__dot3(u, u), vv = eqnn__dot3(v, v), uv = eqnn__dot3(u, v);
    double length = sqrt(uu * vv), area = sqrt(eqnn__dot3(cross, cross));
    double bend = atan2(area, uv) - o->theta0;
    double sine = length > 0 && area / length > 1e-8 ? area / length : 1e-8;
    double s = length > 0 ? -o->ka * bend / (length * sine) : 0;
    for (int m = 0; force && length > 0 && m < 3; m++) {
        double on_i = s * (u[m] * uv / uu - v[m]), on_l = s * (v[m] * uv / vv - u[m]);
        force[3 * (j - 1) + m] += on_i;
        force[3 * (j + 1) + m] += on_l;
        force[3 * j + m] -= on_i + on_l;
    }
    return 0.5 * o->ka * bend * bend;
}

/* 4 epsilon (q^2 - q), q = (sigma/d)^6; the force on i: 24 epsilon (2 q^2 - q) (x_i - x_j) / d^2 */
static double eqnn__chain_pair(const eqnn_chain_opts *o, const double *x, int i, int j,
                               double *force)
{
    double r[3];
    for (int m = 0; m < 3; m++) r[m] = x[3 * i + m] - x[3 * j + m];
    double dd = eqnn__dot3(r, r);
    if (!(dd > 0)) return 0;
    double s = o->sigma * o->sigma / dd, q = s * s * s;
    if (force) eqnn__chain_push(force, i, j, r, 24 * o->epsilon * (2 * q * q - q) / dd);
    return 4 * o->epsilon * (q * q - q);
}

/* The potential energy; force [beads,3] or NULL. o is complete. */
static double eqnn__chain_potential(const eqnn_chain_opts *o, const double *x, double *force)
{
    double energy = 0;
    for (int i = 0; force && i < 3 * o->beads; i++) force[i] = 0;
    for (int i = 0; i + 1 < o->beads; i++) energy += eqnn__chain_bond(o, x, i, i + 1, force);
    for (int j = 1; j + 1 < o->beads; j++) energy += eqnn__chain_angle(o, x, j, force);
    for (int i = 0; i < o->beads; i++)
        for (int j = i + 2; j < o->beads; j++) energy += eqnn__chain_pair(o, x, i, j, force);
    return energy;
}

EQNN_API double eqnn_chain_energy(const eqnn_chain_opts *opts, const double *pos, const double *vel)
{
    eqnn_chain_opts o = eqnn__chain_defaults(opts, NULL);
    double kinetic = 0;
    for (int i = 0; vel && i < 3 * o.beads; i++) kinetic += 0.5 * vel[i] * vel[i];
    return kinetic + eqnn__chain_potential(&o, pos, NULL);
}

EQNN_API void eqnn_chain_force(const eqnn_chain_opts *opts, const double *pos, double *force)
{
    eqnn_chain_opts o = eqnn__chain_defaults(opts, NULL);
    eqnn__chain_potential(&o, pos, force);
}

/* Velocity Verlet: half a kick, a drift, the new force, half a kick. Its error is of second order
   in the step, and the energy does not drift. */
static void eqnn__chain_step(const eqnn_chain_opts *o, double *pos, double *vel, double *force)
{
    double h = 1.0 / o->substeps;
    for (int s = 0; s < o->substeps; s++) {
        for (int i = 0; i < 3 * o->beads; i++) {
            vel[i] += 0.5 * h * force[i];
            pos[i] += h * vel[i];
        }
        eqnn__chain_potential(o, pos, force);
        for (int i = 0; i < 3 * o->beads; i++) vel[i] += 0.5 * h * force[i];
    }
}

EQNN_API void eqnn_chain_step(const eqnn_chain_opts *opts, double *pos, double *vel, double *force)
{
    eqnn_chain_opts o = eqnn__chain_defaults(opts, NULL);
    eqnn__chain_step(&o, pos, vel, force);
}

/* Takes the mean of each coordinate away. */
static void eqnn__chain_centre(double *x, int beads)
{
    for (int m = 0; m < 3; m++) {
        double mean = 0;
        for (int i = 0; i < beads; i++) mean += x[3 * i + m] / beads;
        for (int i = 0; i < beads; i++) x[3 * i + m] -= mean;
    }
}

/* A zigzag along x with bonds r0 and angles theta0, moved by a jitter; hot velocities. Centre of
   mass and momentum are zero. */
static void eqnn__chain_begin(const eqnn_chain_opts *o, double *pos, double *vel)
{
    double along = o->r0 * sin(o->theta0 / 2), across = o->r0 * cos(o->theta0 / 2);
    double speed = sqrt(2 * o->temperature);
    for (int i = 0; i < o->beads; i++) {
        pos[3 * i] = along * i;
        pos[3 * i + 1] = across * (i % 2);
        pos[3 * i + 2] = vel[3 * i + 2] = 0;
        for (int m = 0; m < (o->spatial ? 3 : 2); m++) {
            uint64_t index = (uint64_t)(3 * i + m);
            pos[3 * i + m] += 0.01 * eqnn__data_normal(o->seed, EQNN__STREAM_BEADS, index);
            vel[3 * i + m] = speed * eqnn__data_normal(o->seed, EQNN__STREAM_VELOCITIES, index);
        }
    }
    eqnn__chain_centre(pos, o->beads);
    eqnn__chain_centre(vel, o->beads);
}

/* Velocities scaled so that half the sum of their squares is kT/2 per degree of freedom. */
static void eqnn__chain_heat(const eqnn_chain_opts *o, double *vel)
{
    double squares = 0, freedoms = (o->beads - 1.0) * (o->spatial ? 3 : 2);
    for (int i = 0; i < 3 * o->beads; i++) squares += vel[i] * vel[i];
    double s = squares > 0 ? sqrt(o->temperature * freedoms / squares) : 0;
    for (int i = 0; i < 3 * o->beads; i++) vel[i] *= s;
}

/* The state as it is recorded: moved by an offset that grows by the same drift in every frame. */
static void eqnn__chain_record(const eqnn_chain_opts *o, int frame, const double *now,
                               const double *now_vel, double *pos, double *vel)
{
    static const double offset[3] = { 26.3, 6.6, 0 }, drift[3] = { 1.4e-3, 3.2e-4, 0 };
    size_t first = (size_t)frame * 3 * (size_t)o->beads;
    for (int i = 0; i < 3 * o->beads; i++) {
        double d = o->centred ? 0 : drift[i % 3], x = o->centred ? 0 : offset[i % 3];
        pos[first + (size_t)i] = now[i] + x + frame * d;
        if (vel) vel[first + (size_t)i] = now_vel[i] + d;
    }
}

static void eqnn__chain_run(const eqnn_chain_opts *o, double *work, double *pos, double *vel)
{
    double *x = work, *v = x + 3 * o->beads, *force = v + 3 * o->beads;
    eqnn__chain_begin(o, x, v);
    eqnn__chain_potential(o, x, force);
    for (int i = 0; i < o->settle; i++) eqnn__chain_step(o, x, v, force);
    eqnn__chain_heat(o, v);
    for (int frame = 0; frame < o->frames; frame++) {
        eqnn__chain_record(o, frame, x, v, pos, vel);
        eqnn__chain_step(o, x, v, force);
    }
}

static int eqnn__chain_good(eqnn_ctx *c, const eqnn_chain_opts *o)
{
    const char *const names[] = { "temperature", "k", "r0", "ka", "theta0", "epsilon", "sigma" };
    const double values[] = { o->temperature, o->k, o->r0, o->ka, o->theta0, o->epsilon, o->sigma };
    for (int i = 0; i < 7; i++) /* epsilon may be 0 here */
        if (values[i] != 0 && !eqnn__positive(c, "chain", names[i], values[i])) return 0;
    return 1;
}

EQNN_API int eqnn_chain(eqnn_ctx *c, const eqnn_chain_opts *opts, double *pos, double *vel)
{
    eqnn_chain_opts o = eqnn__chain_defaults(opts, c);
    if (eqnn_error(c)) return 0;
    if (!pos || o.beads < 1 || o.frames < 1 || o.substeps < 1 || o.beads > 10000000) {
        eqnn_fail(c, "chain: %d beads, %d frames, %d steps a frame: each must be positive%s",
                  o.beads, o.frames, o.substeps, pos ? "" : ", and pos is missing");
        return 0;
    }
    if (!eqnn__chain_good(c, &o)) return 0;
    double *work = (double *)malloc(9 * (size_t)o.beads * sizeof *work);
    if (!work) {
        eqnn_fail(c, "chain: no memory for %d beads", o.beads);
        return 0;
    }
    eqnn__chain_run(&o, work, pos, vel);
    free(work);
    if (!isfinite(pos[3 * ((size_t)o.frames * (size_t)o.beads - 1)]))
        eqnn_fail(c, "chain: the motion blew up; take more .substeps, or less .temperature");
    return !eqnn_error(c);
}

/* ---- functions to be found ---- */

static void eqnn__task_inertia(const double *x, double *y)
{
    for (int a = 0; a < 9; a++) y[a] = 0;
    for (int i = 0; i < 5; i++) {
        double m = x[i];
        const double *r = x + 5 + 3 * i;
        for (int a = 0; a < 3; a++)
            for (int b = 0; b < 3; b++)
                y[3 * a + b] += m * ((a == b ? eqnn__dot3(r, r) : 0) - r[a] * r[b]);
    }
}

static void eqnn__task_o5(const double *x, double *y)
{
    double aa = 0, bb = 0, ab = 0;
    for (int i = 0; i < 5; i++) {
        aa += x[i] * x[i];
        bb += x[5 + i] * x[5 + i];
        ab += x[i] * x[5 + i];
    }
    double a = sqrt(aa), b = sqrt(bb), cosine = a > 0 && b > 0 ? ab / (a * b) : 0;
    y[0] = sin(a) - b * bb / 2 + cosine;
}

static double eqnn__minkowski(const double *a, const double *b)
{
    return a[0] * b[0] - a[1] * b[1] - a[2] * b[2] - a[3] * b[3];
}

/* Multiplied out: (L, M) = (ab)(cd) - v (ac) - u (bd) + 4 u v, u = ac - aa, v = bd - bb */
static void eqnn__task_particle(const double *x, double *y)
{
    const double *a = x, *b = x + 4, *c = x + 8, *d = x + 12;
    double ac = eqnn__minkowski(a, c), bd = eqnn__minkowski(b, d);
    double u = ac - eqnn__minkowski(a, a), v = bd - eqnn__minkowski(b, b);
    double both = eqnn__minkowski(a, b) * eqnn__minkowski(c, d);
    y[0] = 4 * (both - v * ac - u * bd + 4 * u * v);
}

EQNN_API const eqnn_task *eqnn_task_find(eqnn_ctx *c, const char *name)
{
    static const eqnn_task tasks[3] = {
        { "inertia", "5*Scalar+5*V", "T(2)", "O(3)", 20, 9, 1, 0, eqnn__task_inertia },
        { "o5", "2*V", "Scalar", "O(5)", 10, 1, 1, 5, eqnn__task_o5 },
        { "particle", "4*V", "Scalar", "Lorentz", 16, 1, 0.25, 4, eqnn__task_particle }
    };
    for (int i = 0; i < 3; i++)
        if (name && !strcmp(name, tasks[i].name)) return &tasks[i];
    eqnn_fail(c, "there is no task '%s'; there are inertia, o5 and particle", name ? name : "NULL");
    return NULL;
}

EQNN_API void eqnn_task_draw(const eqnn_task *t, uint64_t seed, uint64_t first, int n, double *x,
                             double *y)
{
    if (!t) return;
    uint64_t stream = t->in == 20 ? EQNN__STREAM_INERTIA : t->in == 10 ? EQNN__STREAM_O5
                                                                       : EQNN__STREAM_PARTICLE;
    for (int i = 0; i < n; i++)
        for (int k = 0; k < t->in; k++) {
            uint64_t index = (first + (uint64_t)i) * (uint64_t)t->in + (uint64_t)k;
            double v = t->spread * eqnn__data_normal(seed, stream, index);
            x[(size_t)i * (size_t)t->in + (size_t)k] = t->in == 20 && k < 5 ? log1p(exp(v)) : v;
        }
    if (y) eqnn_task_targets(t, n, x, y);
}

EQNN_API void eqnn_task_targets(const eqnn_task *t, int n, const double *x, double *y)
{
    for (int i = 0; t && i < n; i++)
        t->target(x + (size_t)i * (size_t)t->in, y + (size_t)i * (size_t)t->out);
}

EQNN_API void eqnn_task_scales(const eqnn_task *t, int n, const double *x, const double *y,
                               double *scale, double *mean, double *deviation)
{
    if (!t) return;
    for (int k = 0; k < t->in; k++) scale[k] = t->vector ? 0 : 1;
    for (int k = 0; k < t->in && t->vector; k++) {
        double sum = 0, count = (double)n * t->vector;
        int first = k / t->vector * t->vector;
        for (int i = 0; i < n * t->vector; i++) {
            double v = x[i / t->vector * t->in + first + i % t->vector];
            sum += v * v;
        }
        scale[k] = n > 0 && sum > 0 ? sqrt(sum / count) : 1;
    }
    for (int k = 0; k < t->out; k++) {
        double squares = 0;
        mean[k] = 0, deviation[k] = 1;
        if (!t->vector || n < 1) continue;
        for (int i = 0; i < n; i++) mean[k] += y[i * t->out + k] / n;
        for (int i = 0; i < n; i++)
            squares += (y[i * t->out + k] - mean[k]) * (y[i * t->out + k] - mean[k]) / n;
        if (squares > 0) deviation[k] = sqrt(squares);
    }
}

/* Faces are up, front, right, back, left, down; mirrored, opposite colours have changed places in
   all three pairs: an inversion. */
EQNN_API void eqnn_cube_state(int stickers, int mirrored, double *x)
{
    static const int other[6] = { 5, 3, 4, 1, 2, 0 };
    for (int colour = 0; colour < 6; colour++)
        for (int k = 0; k < 6 * stickers; k++) {
            int face = k / stickers;
            *x++ = colour == (mirrored ? other[face] : face);
        }
}

EQNN_API int eqnn_scramble(eqnn_ctx *c, uint64_t seed, uint64_t index, int letters,
                           const double *generators, int count, int rows, int d, double *x)
{
    if (eqnn_error(c)) return 0;
    double *row = (double *)malloc(((size_t)(d > 0 ? d : 0) + 1) * sizeof *row);
    if (!row || count < 1 || d < 1) {
        eqnn_fail(c, "scramble: %d generators of size %d%s", count, d, row ? "" : ": no memory");
        free(row);
        return 0;
    }
    for (int k = 0; k < letters; k++) {
        uint64_t bits = eqnn__data_bits(seed, EQNN__STREAM_SCRAMBLE, (index << 32) + (uint64_t)k);
        const double *h = generators + (size_t)(bits % (uint64_t)count) * (size_t)d * (size_t)d;
        for (int r = 0; r < rows; r++) {
            double *v = x + (size_t)r * (size_t)d;
            for (int j = 0; j < d; j++) row[j] = 0;
            for (int i = 0; i < d; i++)
                for (int j = 0; v[i] != 0 && j < d; j++)
                    row[j] += v[i] * h[(size_t)i * (size_t)d + (size_t)j];
            memcpy(v, row, (size_t)d * sizeof *v);
        }
    }
    free(row);
    return 1;
}

/* ---- mechanical systems ---- */

/* Of the vectors from the origin to x1 and from x2 to x1: length less 1, and direction. */
static void eqnn__springs_stretch(const double *z, double stretch[2], double u[2][3])
{
    for (int k = 0; k < 2; k++) {
        double d[3];
        for (int m = 0; m < 3; m++) d[m] = z[m] - (k ? z[3 + m] : 0);
        double length = sqrt(eqnn__dot3(d, d));
        stretch[k] = length - 1;
        for (int m = 0; m < 3; m++) u[k][m] = length > 0 ? d[m] / length : 0;
    }
}

static double eqnn__springs_energy(const eqnn_system *system, const double *z)
{
    (void)system;
    double s[2], u[2][3], kinetic = 0;
    eqnn__springs_stretch(z, s, u);
    for (int m = 6; m < 12; m++) kinetic += 0.5 * z[m] * z[m];
    return kinetic + 0.5 * s[0] * s[0] + s[1] * s[1] + z[2] + z[5];
}

static void eqnn__springs_field(const eqnn_system *system, const double *z, double *dz)
{
    (void)system;
    double s[2], u[2][3];
    eqnn__springs_stretch(z, s, u);
    for (int m = 0; m < 6; m++) dz[m] = z[6 + m];
    for (int m = 0; m < 3; m++) {
        dz[6 + m] = -s[0] * u[0][m] - 2 * s[1] * u[1][m] - (m == 2);
        dz[9 + m] = 2 * s[1] * u[1][m] - (m == 2);
    }
}

static double eqnn__springs_spin(const eqnn_system *system, const double *z)
{
    (void)system;
    return z[0] * z[7] - z[1] * z[6] + z[3] * z[10] - z[4] * z[9];
}

static void eqnn__springs_start(const eqnn_system *system, uint64_t seed, uint64_t i, double *z)
{
    (void)system;
    for (int m = 0; m < 12; m++) {
        double v = eqnn__data_normal(seed, EQNN__STREAM_SPRINGS, 12 * i + (uint64_t)m);
        z[m] = (m < 6 ? 0.2 : 0.4) * v - (m == 2 ? 1.5 : m == 5 ? 3 : 0);
    }
}

static double eqnn__oscillator_energy(const eqnn_system *system, const double *z)
{
    (void)system;
    return (z[0] * z[0] + z[1] * z[1]) / 2;
}

static void eqnn__oscillator_field(const eqnn_system *system, const double *z, double *dz)
{
    (void)system;
    dz[0] = z[1];
    dz[1] = -z[0];
}

static void eqnn__oscillator_start(const eqnn_system *system, uint64_t seed, uint64_t i, double *z)
{
    (void)system;
    for (uint64_t m = 0; m < 2; m++)
        z[m] = eqnn__data_normal(seed, EQNN__STREAM_OSCILLATOR, 2 * i + m);
}

EQNN_API const eqnn_system *eqnn_system_find(eqnn_ctx *c, const char *name)
{
    static const eqnn_system systems[2] = {
        { "springs", "4*V", "O2eR3", 12, eqnn__springs_energy, eqnn__springs_field,
          eqnn__springs_spin, eqnn__springs_start, 0, 0, 0, 0, 0, 0, 0, 0 },
        { "oscillator", "V", "SO(2)", 2, eqnn__oscillator_energy, eqnn__oscillator_field, NULL,
          eqnn__oscillator_start, 0, 0, 0, 0, 0, 0, 0, 0 }
    };
    for (int i = 0; i < 2; i++)
        if (name && !strcmp(name, systems[i].name)) return &systems[i];
    eqnn_fail(c, "there is no system '%s'; there are springs and oscillator, and of particles "
              "coupled, planets and moons", name ? name : "NULL");
    return NULL;
}

/* ---- particles ---- */

/* q_i - q_j into d; the square of its length. */
static double eqnn__pair_difference(const eqnn_system *s, const double *z, int i, int j, double *d)
{
    double square = 0;
    for (int a = 0; a < s->axes; a++) {
        d[a] = z[i * s->axes + a] - z[j * s->axes + a];
        square += d[a] * d[a];
    }
    return square;
}

/* V of the pair; *slope is such that the force on i is slope (q_i - q_j). */
static double eqnn__coupled_pair(const double *a, const double *b, double square, double *slope)
{
    *slope = -2 * a[1] * b[1];
    return a[1] * b[1] * square;
}

static double eqnn__gravity_pair(const eqnn_system *s, const double *a, const double *b,
                                 double square, double *slope)
{
    double length = sqrt(square), mm = s->G * a[0] * b[0], r = length + s->softening;
    *slope = 0;
    if (length < s->least) return -mm / (s->least + s->softening);
    if (length > 0) *slope = -mm / (r * r * length);
    return r > 0 ? -mm / r : 0;
}

/* The potential energy; with dz the forces are added to its momenta. */
static double eqnn__particles_potential(const eqnn_system *s, const double *z, double *dz)
{
    int n = s->particles, axes = s->axes;
    const double *given = z + 2 * n * axes;
    double potential = 0;
    for (int i = 0; i < n; i++)
        for (int j = i + 1; j < n; j++) {
            const double *a = given + i * s->given, *b = given + j * s->given;
            double d[3], slope, square = eqnn__pair_difference(s, z, i, j, d);
            potential += s->given == 2 ? eqnn__coupled_pair(a, b, square, &slope)
                                       : eqnn__gravity_pair(s, a, b, square, &slope);
            for (int m = 0; dz && m < axes; m++) {
                dz[(n + i) * axes + m] += slope * d[m];
                dz[(n + j) * axes + m] -= slope * d[m];
            }
        }
    return potential;
}

static double eqnn__particles_energy(const eqnn_system *s, const double *z)
{
    int half = s->particles * s->axes;
    double energy = eqnn__particles_potential(s, z, NULL);
    for (int k = 0; k < half; k++)
        energy += z[half + k] * z[half + k] / (2 * z[2 * half + k / s->axes * s->given]);
    return energy;
}

static void eqnn__particles_field(const eqnn_system *s, const double *z, double *dz)
{
    int half = s->particles * s->axes;
    for (int k = 0; k < s->dim; k++)
        dz[k] = k < half ? z[half + k] / z[2 * half + k / s->axes * s->given] : 0;
    eqnn__particles_potential(s, z, dz);
}

/* The sum of x p_y - y p_x: in space the component along z. */
static double eqnn__particles_spin(const eqnn_system *s, const double *z)
{
    double spin = 0;
    for (int i = 0; i < s->particles; i++) {
        const double *q = z + i * s->axes, *p = q + s->particles * s->axes;
        spin += q[0] * p[1] - q[1] * p[0];
    }
    return spin;
}

/* m = 3 U + 0.1, k = 5 U, q = 0.4 N, p = 0.6 N less their mean over the particles. */
static void eqnn__coupled_start(const eqnn_system *s, uint64_t seed, uint64_t i, double *z)
{
    int n = s->particles, axes = s->axes, half = n * axes;
    uint64_t first = i * 256; /* room for every number of a system */
    for (int k = 0; k < 2 * half; k++)
        z[k] = (k < half ? 0.4 : 0.6)
               * eqnn__data_normal(seed, EQNN__STREAM_COUPLED, first + (uint64_t)k);
    for (int a = 0; !s->drifting && a < axes; a++) {
        double mean = 0;
        for (int k = 0; k < n; k++) mean += z[half + k * axes + a] / n;
        for (int k = 0; k < n; k++) z[half + k * axes + a] -= mean;
    }
    for (int k = 0; k < n; k++) { /* the normal numbers took two draws each */
        uint64_t at = 2 * (first + (uint64_t)(2 * half + k));
        z[2 * half + 2 * k] = 3 * eqnn__data_uniform(seed, EQNN__STREAM_COUPLED, at) + 0.1;
        z[2 * half + 2 * k + 1] = 5 * eqnn__data_uniform(seed, EQNN__STREAM_COUPLED, at + 1);
    }
}

/* A direction x, uniform, and one across it, v, uniform too, from three uniform numbers. In space
   v = cos a e + sin a (x cross e), e orthogonal to x and to the first axis. */
static void eqnn__planet_directions(int axes, const double *u, double *x, double *v)
{
    const double turn = 2 * EQNN__PI;
    double c = cos(turn * u[0]), s = sin(turn * u[0]);
    if (axes == 2) {
        double side = u[2] < 0.5 ? 1 : -1;
        x[0] = c, x[1] = s;
        v[0] = -side * s, v[1] = side * c;
        return;
    }
    double height = 2 * u[1] - 1, radius = sqrt(1 - height * height), e[3] = { 0, 0, 1 }, f[3];
    x[0] = radius * c, x[1] = radius * s, x[2] = height;
    double across = sqrt(x[1] * x[1] + x[2] * x[2]);
    if (across > 0) e[1] = -x[2] / across, e[2] = x[1] / across;
    eqnn__cross3(x, e, f);
    for (int m = 0; m < 3; m++) v[m] = cos(turn * u[2]) * e[m] + sin(turn * u[2]) * f[m];
}

/* Planet k of n - 1: mass and distance r by the system's rule, speed that of a circle about the
   star, sqrt(G star / r). A moon in a plane is pushed off the circle by up to a tenth of its
   position. u are ten uniform numbers. */
static double eqnn__planet(const eqnn_system *s, int k, const double *u, double *q, double *v)
{
    int moon = s->least > 0, others = s->particles - 1;
    double even = others > 1 ? 0.5 + 3.5 * k / (others - 1) : 0.5, size = 0;
    double r = moon ? 0.85 * u[3] + 0.085 : even + 0.3 * (u[3] - 0.5) * 3.5 / others;
    eqnn__planet_directions(s->axes, u, q, v);
    for (int a = 0; a < s->axes; a++) {
        q[a] *= r;
        if (moon && s->axes == 2) v[a] += 0.1 * u[4 + a] * q[a];
        size += v[a] * v[a];
    }
    for (int a = 0; a < s->axes; a++) v[a] *= sqrt(s->G * s->star / (r * size));
    return moon ? 4.4 * u[6] + 0.1 : 0.02 + 0.18 * u[6];
}

static void eqnn__planets_start(const eqnn_system *s, uint64_t seed, uint64_t i, double *z)
{
    int n = s->particles, axes = s->axes, place[16];
    eqnn_permutation(seed, ((i + 1) << 32) + EQNN__STREAM_PLANETS, n, place);
    for (int k = 0; k < n; k++) {
        double u[10], *q = z + place[k] * axes, *p = q + n * axes, *m = z + 2 * n * axes + place[k];
        for (int j = 0; j < 10; j++)
            u[j] = eqnn__data_uniform(seed, EQNN__STREAM_PLANETS, i * 256 + (uint64_t)(10 * k + j));
        *m = s->star;
        if (k + 1 < n) *m = eqnn__planet(s, k, u, q, p);
        for (int a = 0; a < axes; a++) {
            if (k + 1 == n) q[a] = p[a] = 0;
            p[a] *= *m;
        }
    }
}

EQNN_API int eqnn_system_particles(eqnn_ctx *c, const char *name, int particles, int axes,
                                   eqnn_system *s)
{
    static const char *const names[3] = { "coupled", "planets", "moons" };
    int kind = 0;
    if (eqnn_error(c)) return 0;
    while (kind < 3 && (!name || strcmp(name, names[kind]))) kind++;
    if (kind == 3) {
        eqnn_fail(c, "there is no system of particles '%s'; there are coupled, planets and moons",
                  name ? name : "NULL");
        return 0;
    }
    if (particles < 1 || particles > 16 || axes < 2 || axes > 3) {
        eqnn_fail(c, "%s: %d particles of %d axes; 1 to 16 of 2 or 3 are possible", name, particles,
                  axes);
        return 0;
    }
    memset(s, 0, sizeof *s);
    s->name = names[kind];
    s->group = axes == 2 ? "SE(2)" : "SE(3)";
    s->particles = particles;
    s->axes = axes;
    s->given = kind ? 1 : 2;
    s->dim = particles * (2 * axes + s->given);
    s->energy = eqnn__particles_energy;
    s->field = eqnn__particles_field;
    s->spin = eqnn__particles_spin;
    s->start = kind ? eqnn__planets_start : eqnn__coupled_start;
    s->G = kind == 2 ? 0.06 : 1;
    s->star = kind == 2 ? 50 : 32;
    s->softening = kind == 1 ? 1e-8 : 0;
    s->least = kind == 2 ? 0.15 : 0;
    return 1;
}

/* Extrapolation of Gragg's midpoint rule (Gragg 1965; Bulirsch, Stoer 1966; Hairer, Norsett,
   Wanner, Solving ODEs I, II.9): n = 2, 4, 6, ... small steps give ends whose errors are series in
   1/n^2; each further n removes one more term, by the rule of Aitken and Neville. */
enum { EQNN__SYSTEM_MOST = 256, EQNN__SYSTEM_LEVELS = 8 };

/* The end of a step h in n small ones. */
static void eqnn__system_gragg(const eqnn_system *s, const double *z, double h, int n, double *end)
{
    double before[EQNN__SYSTEM_MOST], now[EQNN__SYSTEM_MOST], f[EQNN__SYSTEM_MOST], d = h / n;
    s->field(s, z, f);
    for (int i = 0; i < s->dim; i++) {
        before[i] = z[i];
        now[i] = z[i] + d * f[i];
    }
    for (int k = 1; k <= n; k++) {
        s->field(s, now, f);
        for (int i = 0; i < s->dim; i++) {
            double next = before[i] + 2 * d * f[i];
            if (k == n) end[i] = 0.5 * (now[i] + before[i] + d * f[i]);
            before[i] = now[i];
            now[i] = next;
        }
    }
}

/* One step, until two columns of the table agree; the number of levels, 0 when they never do. */
static int eqnn__system_step(const eqnn_system *s, double tolerance, double h, double *z)
{
    double table[EQNN__SYSTEM_LEVELS][EQNN__SYSTEM_MOST], end[EQNN__SYSTEM_MOST];
    int moving = s->dim - s->particles * s->given;
    for (int level = 0; level < EQNN__SYSTEM_LEVELS; level++) {
        double error = 0, size = 0;
        eqnn__system_gragg(s, z, h, 2 * (level + 1), end);
        for (int i = 0; i < s->dim; i++) {
            double t = end[i];
            for (int k = 0; k < level; k++) {
                double ratio = (level + 1.0) / (level - k);
                double better = t + (t - table[k][i]) / (ratio * ratio - 1);
                table[k][i] = t;
                t = better;
            }
            table[level][i] = t;
            if (i >= moving) continue;
            double change = level ? fabs(t - table[level - 1][i]) : INFINITY;
            if (!(change <= error)) error = change;
            if (fabs(t) > size) size = fabs(t);
        }
        if (!(error <= tolerance * size)) continue;
        memcpy(z, table[level], (size_t)s->dim * sizeof *z);
        return level + 1;
    }
    return 0;
}

/* The rule of 3/8 (Kutta 1901), fourth order: the slopes k1..k4 at 0, h/3, 2h/3 and h count 1, 3,
   3 and 1 eighths. */
static void eqnn__system_kutta(const eqnn_system *s, double h, double *z)
{
    double k[4][EQNN__SYSTEM_MOST], at[EQNN__SYSTEM_MOST];
    for (int stage = 0; stage < 4; stage++) {
        for (int i = 0; i < s->dim; i++)
            at[i] = stage == 0   ? z[i]
                    : stage == 1 ? z[i] + h / 3 * k[0][i]
                    : stage == 2 ? z[i] + h * (k[1][i] - k[0][i] / 3)
                                 : z[i] + h * (k[0][i] - k[1][i] + k[2][i]);
        s->field(s, at, k[stage]);
    }
    for (int i = 0; i < s->dim; i++)
        z[i] += h / 8 * (k[0][i] + 3 * (k[1][i] + k[2][i]) + k[3][i]);
}

/* The same number of steps between any two times; 0 when the numbers are not finite. */
static int eqnn__system_fixed(const eqnn_system *s, int steps, const double *times, int m,
                              double *z)
{
    double now[EQNN__SYSTEM_MOST], sum = 0;
    memcpy(now, z, (size_t)s->dim * sizeof *z);
    for (int k = 1; k < m; k++) {
        for (int j = 0; j < steps; j++)
            eqnn__system_kutta(s, (times[k] - times[k - 1]) / steps, now);
        memcpy(z + (size_t)k * (size_t)s->dim, now, (size_t)s->dim * sizeof *z);
    }
    for (int i = 0; i < s->dim; i++) sum += 0 * now[i];
    return sum == 0;
}

/* From time to time; steps are halved when they fail and doubled when they are easy. */
static int eqnn__system_one(const eqnn_system *s, double tolerance, const double *times, int m,
                            double *z)
{
    double now[EQNN__SYSTEM_MOST], h = INFINITY;
    memcpy(now, z, (size_t)s->dim * sizeof *z);
    for (int k = 1; k < m; k++) {
        double t = times[k - 1], left = fabs(times[k] - t), all = left;
        double sign = times[k] < t ? -1 : 1;
        while (left > 0) {
            double step = h < left ? h : left;
            int levels = eqnn__system_step(s, tolerance, sign * step, now);
            left = levels ? (step < left ? left - step : 0) : left;
            if (!levels) h = step / 2;
            else if (levels < 6) h = 2 * (h < INFINITY ? h : step);
            if (h < 1e-9 * all) return 0;
        }
        memcpy(z + (size_t)k * (size_t)s->dim, now, (size_t)s->dim * sizeof *z);
    }
    return 1;
}

EQNN_API int eqnn_system_run(eqnn_ctx *c, const eqnn_system *s, double tolerance, int n,
                             const double *z0, const double *times, int m, double *z)
{
    if (eqnn_error(c) || !s) return 0;
    double fixed = tolerance < 0 ? -tolerance : 0;
    if (isnan(tolerance) || !(fixed <= 1e6) || fixed != floor(fixed)) {
        eqnn_fail(c, "%s: a tolerance of %g: positive, or minus a number of steps", s->name,
                  tolerance);
        return 0;
    }
    if (s->dim < 1 || s->dim > EQNN__SYSTEM_MOST || n < 0 || m < 1 || !times || !z0 || !z) {
        eqnn_fail(c, "%s: %d systems of %d numbers (1 to %d) at %d times%s", s->name, n, s->dim,
                  EQNN__SYSTEM_MOST, m, times && z0 && z ? "" : ", and an array is missing (NULL)");
        return 0;
    }
    size_t d = (size_t)s->dim;
    for (int i = 0; i < n; i++) {
        double *to = z + (size_t)i * (size_t)m * d;
        memcpy(to, z0 + (size_t)i * d, d * sizeof *z);
        if (fixed > 0 ? eqnn__system_fixed(s, (int)fixed, times, m, to)
                      : eqnn__system_one(s, tolerance > 0 ? tolerance : 1e-12, times, m, to))
            continue;
        eqnn_fail(c, "%s: no step is short enough for system %d; is its start finite?", s->name, i);
        return 0;
    }
    return 1;
}

static eqnn_chunk_opts eqnn__chunk_defaults(const eqnn_chunk_opts *opts, const eqnn_ctx *c)
{
    eqnn_chunk_opts o;
    memset(&o, 0, sizeof o);
    if (opts) o = *opts;
    if (o.length == 0) o.length = 5;
    if (o.chunks == 0) o.chunks = 30;
    if (o.dt == 0) o.dt = 0.2;
    if (!o.seed) o.seed = eqnn_seed(c);
    return o;
}

EQNN_API int eqnn_system_chunks(eqnn_ctx *c, const eqnn_system *s, const eqnn_chunk_opts *opts,
                                uint64_t first, int n, double *z)
{
    eqnn_chunk_opts o = eqnn__chunk_defaults(opts, c);
    if (eqnn_error(c) || !s) return 0;
    if (o.length < 0 || o.chunks < 0 || !(o.dt > 0 && o.dt < INFINITY)) {
        eqnn_fail(c, "%s: %d chunks of %d times, %g apart: each must be positive, or 0 for the "
                     "default", s->name, o.chunks, o.length, o.dt);
        return 0;
    }
    size_t m = (size_t)o.length * (size_t)o.chunks, d = (size_t)s->dim;
    double *times = (double *)malloc((m + m * d) * sizeof *times), *all = times ? times + m : NULL;
    if (!times) eqnn_fail(c, "%s: no memory for %zu times", s->name, m);
    if (s->dim < 1 || s->dim > EQNN__SYSTEM_MOST)
        eqnn_fail(c, "%s: a state of %d numbers; 1 to %d are possible", s->name, s->dim,
                  EQNN__SYSTEM_MOST);
    for (size_t k = 0; times && k < m; k++) times[k] = o.dt * (double)k;
    for (int i = 0; i < n && !eqnn_error(c); i++) {
        uint64_t number = first + (uint64_t)i;
        uint64_t bits = eqnn__data_bits(o.seed, EQNN__STREAM_CHUNK, number);
        int chunk = (int)(bits % (uint64_t)o.chunks);
        double z0[EQNN__SYSTEM_MOST];
        s->start(s, o.seed, number, z0);
        eqnn_system_run(c, s, o.tolerance, 1, z0, times, (chunk + 1) * o.length, all);
        memcpy(z + (size_t)i * (size_t)o.length * d, all + (size_t)chunk * (size_t)o.length * d,
               (size_t)o.length * d * sizeof *z);
    }
    free(times);
    return !eqnn_error(c);
}

/* ---- constellations ---- */

static eqnn_constellation_opts eqnn__constellation_defaults(const eqnn_constellation_opts *opts,
                                                            const eqnn_ctx *c)
{
    eqnn_constellation_opts o;
    memset(&o, 0, sizeof o);
    if (opts) o = *opts;
    if (!o.copies) o.copies = 2;
    o.rotation = o.rotation < 0 ? 0 : eqnn__data_or(o.rotation, 0.33);
    o.drop = o.drop < 0 ? 0 : eqnn__data_or(o.drop, 0.5);
    o.noise = o.noise < 0 ? 0 : eqnn__data_or(o.noise, 0.1);
    if (!o.seed) o.seed = eqnn_seed(c);
    return o;
}

static int eqnn__constellation_bad(eqnn_ctx *c, const eqnn_constellation_opts *o)
{
    int finite = isfinite(o->rotation) && isfinite(o->noise) && isfinite(o->upscale);
    if (!finite)
        eqnn_fail(c, "constellations: rotation %g, noise %g, upscale %g: each must be a number",
                  o->rotation, o->noise, o->upscale);
    if (finite && o->copies >= 1 && o->copies <= 8 && o->drop <= 1 && o->upscale > -1) return 0;
    eqnn_fail(c, "constellations: %d copies (1 to 8), drop %g (at most 1), upscale %g (above -1)",
              o->copies, o->drop, o->upscale);
    return 1;
}

/* Corners of square, triangle, pentagon and L. */
static const int eqnn__pattern_corners[4] = { 4, 3, 5, 5 };

static void eqnn__pattern_corner(int kind, int k, double corner[2])
{
    static const double L[5][2] = { { 1, 1 }, { 2, 1 }, { 3, 1 }, { 3, 2 }, { 3, 3 } };
    double angle = 2 * EQNN__PI * k / eqnn__pattern_corners[kind];
    corner[0] = kind == 3 ? L[k][0] : cos(angle) + 2;
    corner[1] = kind == 3 ? L[k][1] : sin(angle) + 2;
}

/* All corners before they are mixed: x' = s (cos t x - sin t y) + 24 w U / s, likewise y'; w is 1,
   as published 3 for polygons: there the third, homogeneous coordinate is moved by 2 as well. */
static void eqnn__constellation_corners(const eqnn_constellation_opts *o,
                                        const eqnn_constellation_draws *d, double *pos,
                                        int *present)
{
    for (int p = 0, at = 0; p < 4 * o->copies; p++) {
        double t = (d->angle[p] - 0.5) * 2 * EQNN__PI * o->rotation;
        double s = 1 + d->scale[p] * o->upscale, w = o->published ? (p % 4 == 3 ? 1 : 3) / s : 1;
        for (int k = 0; k < eqnn__pattern_corners[p % 4]; k++, at++) {
            double x[2];
            eqnn__pattern_corner(p % 4, k, x);
            pos[2 * at] = s * (cos(t) * x[0] - sin(t) * x[1]) + w * 24 * d->shift[p][0];
            pos[2 * at + 1] = s * (sin(t) * x[0] + cos(t) * x[1]) + w * 24 * d->shift[p][1];
            present[at] = d->present[p] != 0;
        }
    }
}

/* Coordinates to about -1..1: by what is there, as published, or by the size of the field. */
static void eqnn__constellation_scale(const eqnn_constellation_opts *o, int points, double *pos)
{
    double low = 0, high = 24;
    for (int i = 0; o->published && i < 2 * points; i++) {
        if (i == 0 || pos[i] < low) low = pos[i];
        if (i == 0 || pos[i] > high) high = pos[i];
    }
    for (int i = 0; i < 2 * points; i++)
        pos[i] = o->published ? (pos[i] - low) / (high - low + 1e-8) * 2 - 1 : pos[i] / 24 - 0.5;
}

/* o is complete. */
static int eqnn__constellation(eqnn_ctx *c, const eqnn_constellation_opts *o,
                               const eqnn_constellation_draws *draws, double *pos, int *present,
                               int *counts)
{
    double old[2 * EQNN_CONSTELLATION_POINTS];
    int there[EQNN_CONSTELLATION_POINTS], points = 17 * o->copies;
    eqnn__constellation_corners(o, draws, old, there);
    for (int i = 0; i < points; i++) {
        int from = draws->order[i];
        if (from < 0 || from >= points) {
            eqnn_fail(c, "constellation: point %d comes from point %d of %d", i, from, points);
            return 0;
        }
        for (int a = 0; a < 2; a++) pos[2 * i + a] = old[2 * from + a] + draws->noise[i][a];
        present[i] = there[from];
    }
    eqnn__constellation_scale(o, points, pos);
    double cosine = cos(draws->turn), sine = sin(draws->turn);
    for (int i = 0; i < points; i++) {
        double x = pos[2 * i], y = pos[2 * i + 1];
        pos[2 * i] = cosine * x - sine * y + draws->move;
        pos[2 * i + 1] = sine * x + cosine * y + draws->move;
    }
    for (int k = 0; k < 4; k++) counts[k] = 0;
    for (int p = 0; p < 4 * o->copies; p++) counts[p % 4] += draws->present[p] != 0;
    return 1;
}

EQNN_API int eqnn_constellation(eqnn_ctx *c, const eqnn_constellation_opts *opts,
                                const eqnn_constellation_draws *draws, double *pos, int *present,
                                int *counts)
{
    eqnn_constellation_opts o = eqnn__constellation_defaults(opts, c);
    if (eqnn_error(c) || eqnn__constellation_bad(c, &o)) return 0;
    return eqnn__constellation(c, &o, draws, pos, present, counts);
}

/* The draws of one example. */
static void eqnn__constellation_draw(const eqnn_constellation_opts *o, uint64_t number,
                                     eqnn_constellation_draws *d)
{
    const uint64_t stream = EQNN__STREAM_CONSTELLATION, seed = o->seed;
    uint64_t side = o->test && !o->published ? (uint64_t)1 << 62 : 0, at = number * 2048 + side;
    int patterns = 4 * o->copies, points = 17 * o->copies, any = 0;
    memset(d, 0, sizeof *d);
    for (int p = 0; p < patterns; p++) {
        uint64_t i = at + (uint64_t)p;
        d->angle[p] = eqnn__data_uniform(seed, stream, i);
        d->scale[p] = eqnn__data_uniform(seed, stream, i + 32);
        d->shift[p][0] = eqnn__data_uniform(seed, stream, i + 64);
        d->shift[p][1] = eqnn__data_uniform(seed, stream, i + 96);
        d->present[p] = eqnn__data_uniform(seed, stream, i + 128) >= o->drop;
        any |= d->present[p];
    }
    int lone = (int)(patterns * eqnn__data_uniform(seed, stream, at + 160));
    if (!any) d->present[lone] = 1; /* never nothing */
    for (int i = 0; i < 2 * points; i++) /* a normal number takes two draws: 256 and on */
        d->noise[i / 2][i % 2] = o->noise
                                 * eqnn__data_normal(seed, stream, at / 2 + 128 + (uint64_t)i);
    eqnn_permutation(seed, stream + ((number + 1) << 16) + side, points, d->order);
}

EQNN_API int eqnn_constellations(eqnn_ctx *c, const eqnn_constellation_opts *opts, uint64_t first,
                                 int n, double *pos, int *present, int *counts)
{
    eqnn_constellation_opts o = eqnn__constellation_defaults(opts, c);
    eqnn_constellation_draws d;
    if (eqnn_error(c) || eqnn__constellation_bad(c, &o)) return 0;
    size_t points = 17 * (size_t)o.copies;
    for (int i = 0; i < n; i++) {
        size_t at = (size_t)i * points;
        eqnn__constellation_draw(&o, first + (uint64_t)i, &d);
        if (!eqnn__constellation(c, &o, &d, pos + 2 * at, present + at, counts + 4 * (size_t)i))
            return 0;
    }
    return 1;
}

static double eqnn__point_distance(const double *pos, const int *present, int i, int j)
{
    double x = pos[2 * i] - pos[2 * j], y = pos[2 * i + 1] - pos[2 * j + 1];
    return present[j] ? sqrt(x * x + y * y) : 0;
}

/* Each distance is inserted before the first smaller one; the last falls off. */
EQNN_API void eqnn_point_distances(int n, const double *pos, const int *present, double *out)
{
    for (int i = 0; i < n; i++) {
        double *row = out + (size_t)i * (size_t)(n - 1);
        for (int j = 0; j < n; j++) {
            double d = eqnn__point_distance(pos, present, i, j);
            int at = j < n - 1 ? j : n - 1;
            for (; at > 0 && row[at - 1] < d; at--)
                if (at < n - 1) row[at] = row[at - 1];
            if (at < n - 1) row[at] = d;
        }
    }
}

EQNN_API void eqnn_point_moments(int n, const double *pos, const int *present, int powers,
                                 double *out)
{
    int there = 0;
    for (int j = 0; j < n; j++) there += present[j] != 0;
    for (int i = 0; i < n; i++)
        for (int k = 1; k <= powers; k++) {
            double sum = 0;
            for (int j = 0; j < n; j++) sum += pow(eqnn__point_distance(pos, present, i, j), k);
            out[(size_t)i * (size_t)powers + (size_t)k - 1] = there ? pow(sum / there, 1.0 / k) : 0;
        }
}

/* ---- other positions ---- */

/* A uniform rotation of a plane or of space, by an angle or by a unit quaternion of four normal
   numbers. */
static void eqnn__augment_rotation(uint64_t seed, uint64_t first, int axes, double R[9])
{
    double q[4], length = 0;
    if (axes == 2) {
        double t = 2 * EQNN__PI * eqnn__data_uniform(seed, EQNN__STREAM_AUGMENT, 2 * first);
        R[0] = R[3] = cos(t);
        R[2] = sin(t);
        R[1] = -R[2];
        return;
    }
    for (int k = 0; k < 4; k++) {
        q[k] = eqnn__data_normal(seed, EQNN__STREAM_AUGMENT, first + (uint64_t)k);
        length += q[k] * q[k];
    }
    double s = 2 / length;
    for (int i = 0; i < 3; i++) {
        int j = (i + 1) % 3, k = (i + 2) % 3;
        R[4 * i] = 1 - s * (q[1 + j] * q[1 + j] + q[1 + k] * q[1 + k]);
        R[3 * i + j] = s * (q[1 + i] * q[1 + j] - q[0] * q[1 + k]);
        R[3 * i + k] = s * (q[1 + i] * q[1 + k] + q[0] * q[1 + j]);
    }
}

EQNN_API int eqnn_augment(eqnn_ctx *c, uint64_t seed, uint64_t index, int turn, double shift,
                          int n, int axes, double *pos)
{
    double R[9] = { 0 }, move[3];
    uint64_t first = index * 8;
    if (eqnn_error(c)) return 0;
    if (axes < 2 || axes > 3 || n < 0 || (n > 0 && !pos)) {
        eqnn_fail(c, "augment: %d points of %d axes; 2 or 3 are possible%s", n, axes,
                  n > 0 && !pos ? ", and pos is missing" : "");
        return 0;
    }
    for (int a = 0; a < axes; a++) R[a * axes + a] = 1;
    if (turn) eqnn__augment_rotation(seed, first, axes, R);
    for (int a = 0; a < axes; a++)
        move[a] = shift * eqnn__data_normal(seed, EQNN__STREAM_AUGMENT, first + 4 + (uint64_t)a);
    for (int i = 0; i < n; i++) {
        double *x = pos + (size_t)i * (size_t)axes, old[3];
        memcpy(old, x, (size_t)axes * sizeof *x);
        for (int a = 0; a < axes; a++) {
            x[a] = move[a];
            for (int b = 0; b < axes; b++) x[a] += R[a * axes + b] * old[b];
        }
    }
    return 1;
}

/* The pixel at a row and a column, or what is outside. */
static double eqnn__image_pixel(int rows, int cols, const double *in, double row, double col,
                                double background)
{
    if (!(row >= 0 && row < rows && col >= 0 && col < cols)) return background;
    return in[(size_t)row * (size_t)cols + (size_t)col];
}

EQNN_API void eqnn_image_turn(int rows, int cols, const double *in, double angle, double background,
                              double *out)
{
    double cosine = cos(angle), sine = sin(angle);
    for (int r = 0; r < rows; r++)
        for (int k = 0; k < cols; k++) {
            double X = (2 * k + 1.0) / cols - 1, Y = (2 * r + 1.0) / rows - 1, value = 0;
            double col = ((cosine * X + sine * Y + 1) * cols - 1) / 2;
            double row = ((-sine * X + cosine * Y + 1) * rows - 1) / 2;
            double left = floor(col), top = floor(row);
            for (int corner = 0; corner < 4; corner++) {
                int down = corner / 2, right = corner % 2;
                double part = (down ? row - top : 1 - (row - top))
                              * (right ? col - left : 1 - (col - left));
                value += part * eqnn__image_pixel(rows, cols, in, top + down, left + right,
                                                  background);
            }
            out[(size_t)r * (size_t)cols + (size_t)k] = value;
        }
}

EQNN_API int eqnn_images_turned(eqnn_ctx *c, const eqnn_idx *x, uint64_t seed, int first, int n,
                                double *out)
{
    if (eqnn_error(c) || !x) return 0;
    if (x->dims != 3 || x->kind != 'u' || first < 0 || n < 0 || n > x->shape[0] - first
        || x->shape[1] > 65535 || x->shape[2] > 65535) {
        eqnn_fail(c, "images_turned: images %d to %.0f of a file that holds %.0f, in %d dimensions "
                  "(3 are needed, of bytes)", first, (double)first + n - 1,
                  x->dims == 3 ? (double)x->shape[0] : 0.0, x->dims);
        return 0;
    }
    size_t pixels = (size_t)x->shape[1] * (size_t)x->shape[2];
    if (pixels == 0 || n == 0) return 1; /* nothing to do, however large the header */
    double *plain = (double *)malloc((pixels + 1) * sizeof *plain);
    if (!plain) eqnn_fail(c, "images_turned: no memory for an image of %.0f pixels",
                          (double)pixels);
    for (int i = 0; plain && i < n; i++) {
        uint64_t number = (uint64_t)first + (uint64_t)i;
        double angle = 2 * EQNN__PI * eqnn__data_uniform(seed, EQNN__STREAM_IMAGE, number);
        for (size_t k = 0; k < pixels; k++) plain[k] = x->data[number * pixels + k] / 255.0;
        eqnn_image_turn((int)x->shape[1], (int)x->shape[2], plain, angle, 0,
                        out + (size_t)i * pixels);
    }
    free(plain);
    return !eqnn_error(c);
}

/* ---- protein backbones ---- */

/* (b - a) / |b - a| */
static void eqnn__direction(const double *a, const double *b, double *u)
{
    for (int k = 0; k < 3; k++) u[k] = b[k] - a[k];
    double r = sqrt(eqnn__dot3(u, u));
    for (int k = 0; k < 3 && r > 0; k++) u[k] /= r;
}

/* u along bc, n normal to the plane of a, b, c, m = n x u; at torsion 0 d lies on the side of a. */
EQNN_API void eqnn_place_atom(const double *a, const double *b, const double *c, double length,
                              double angle, double torsion, double *d)
{
    double ab[3], u[3], n[3], m[3], zero[3] = { 0, 0, 0 }, s = sin(angle);
    eqnn__direction(a, b, ab);
    eqnn__direction(b, c, u);
    eqnn__cross3(ab, u, m);
    eqnn__direction(zero, m, n);
    eqnn__cross3(n, u, m);
    for (int k = 0; k < 3; k++)
        d[k] = c[k] + length * (s * cos(torsion) * m[k] + s * sin(torsion) * n[k]
                                - cos(angle) * u[k]);
}

EQNN_API double eqnn_torsion(const double *a, const double *b, const double *c, const double *d)
{
    double ab[3], u[3], cd[3], n[3], m[3], k[3];
    eqnn__direction(a, b, ab);
    eqnn__direction(b, c, u);
    eqnn__direction(c, d, cd);
    eqnn__cross3(ab, u, n);
    eqnn__cross3(u, cd, m);
    eqnn__cross3(n, m, k);
    return atan2(eqnn__dot3(k, u), eqnn__dot3(n, m));
}

/* A chain that grows: its residues pos [residues][4][3], and their torsions. */
typedef struct eqnn__growing {
    uint64_t seed, stream, index; /* of the next random number */
    double spread, *pos, *torsion; /* torsion [residues][2]: phi, psi */
    int *kind, length;
} eqnn__growing;

static double eqnn__grow_uniform(eqnn__growing *g)
{
    return eqnn__data_uniform(g->seed, g->stream, g->index++);
}

static double eqnn__grow_normal(eqnn__growing *g)
{
    g->index += 2 + g->index % 2; /* a pair of draws */
    return eqnn__data_normal(g->seed, g->stream, g->index / 2 - 1);
}

enum { EQNN__HELIX, EQNN__STRAND, EQNN__LOOP };

/* Torsions, in degrees, and kinds of n residues of a piece. */
static void eqnn__grow_draw(eqnn__growing *g, int from, int n, int piece)
{
    static const char kinds[] = "ACDEFGHIKLMNPQRSTVWY";
    static const char usual[3][7] = { "AELKQR", "VITYFW", "GPNDSG" };
    static const double at[6][2] = { { -57, -47 }, { -139, 135 }, { -65, -40 }, { -65, 140 },
                                     { -110, 130 }, { 60, 40 } };
    for (int i = from; i < from + n; i++) {
        double u = eqnn__grow_uniform(g);
        int region = piece < EQNN__LOOP ? piece : u < .35 ? 2 : u < .65 ? 3 : u < .9 ? 4 : 5;
        double spread = piece == EQNN__LOOP ? 3 * g->spread : g->spread;
        for (int k = 0; k < 2; k++)
            g->torsion[2 * i + k] = at[region][k] + spread * eqnn__grow_normal(g);
        const char *name = strchr(kinds, usual[piece][(int)(6 * eqnn__grow_uniform(g))]);
        g->kind[i] = name ? (int)(name - kinds) : 20;
    }
}

/* The atoms of n residues. Bonds in angstrom, angles in degrees (Engh, Huber 1991): N-CA 1.458,
   CA-C 1.525, C-N 1.329, C=O 1.231; N-CA-C 111.2, CA-C-N 116.2, C-N-CA 121.7, CA-C=O 120.8. */
static void eqnn__grow_place(eqnn__growing *g, int from, int n)
{
    const double degree = EQNN__PI / 180;
    for (int i = from; i < from + n; i++) {
        double *N = g->pos + 12 * (size_t)i, *A = N + 3, *C = N + 6, *O = N + 9, *last = N - 12;
        double phi = degree * g->torsion[2 * i], psi = degree * g->torsion[2 * i + 1];
        if (i == 0) {
            memset(N, 0, 3 * sizeof *N);
            A[0] = 1.458, A[1] = A[2] = 0;
            C[0] = 1.458 - 1.525 * cos(111.2 * degree);
            C[1] = 1.525 * sin(111.2 * degree), C[2] = 0;
        } else {
            double before = degree * g->torsion[2 * i - 1];
            eqnn_place_atom(last, last + 3, last + 6, 1.329, 116.2 * degree, before, N);
            eqnn_place_atom(last + 3, last + 6, N, 1.458, 121.7 * degree, 180 * degree, A);
            eqnn_place_atom(last + 6, N, A, 1.525, 111.2 * degree, phi, C);
        }
        eqnn_place_atom(N, A, C, 1.231, 120.8 * degree, psi + 180 * degree, O);
    }
}

/* How bad a piece is: 1000 for each alpha carbon nearer than 4 to one before it that is not its
   neighbour, and the mean squared distance from the middle of those before. */
static double eqnn__grow_score(const eqnn__growing *g, int from, int n)
{
    double middle[3] = { 0, 0, 0 }, score = 0, d[3];
    for (int j = 0; j < from; j++)
        for (int k = 0; k < 3; k++) middle[k] += g->pos[12 * j + 3 + k] / from;
    for (int i = from; i < from + n && from > 0; i++) {
        const double *a = g->pos + 12 * (size_t)i + 3;
        for (int k = 0; k < 3; k++) d[k] = a[k] - middle[k];
        score += eqnn__dot3(d, d) / n;
        for (int j = 0; j < i - 2; j++) {
            for (int k = 0; k < 3; k++) d[k] = a[k] - g->pos[12 * j + 3 + k];
            if (eqnn__dot3(d, d) < 16) score += 1000;
        }
    }
    return score;
}

/* A loop and what follows it, out of 24 draws the best. */
static int eqnn__grow_piece(eqnn__growing *g, int from)
{
    int piece = (int)(2 * eqnn__grow_uniform(g)), loop = 2 + (int)(4 * eqnn__grow_uniform(g));
    int own = piece == EQNN__HELIX ? 8 + (int)(10 * eqnn__grow_uniform(g))
                                   : 4 + (int)(6 * eqnn__grow_uniform(g));
    if (from == 0) loop = 1;
    if (loop > g->length - from) loop = g->length - from;
    if (own > g->length - from - loop) own = g->length - from - loop;
    uint64_t best = g->index, end = best;
    double least = INFINITY;
    for (int k = 0; k <= 24; k++) { /* the last time once more the best */
        end = g->index;
        if (k == 24) g->index = best;
        uint64_t index = g->index;
        eqnn__grow_draw(g, from, loop, EQNN__LOOP);
        eqnn__grow_draw(g, from + loop, own, piece);
        eqnn__grow_place(g, from, loop + own);
        double score = eqnn__grow_score(g, from, loop + own);
        if (!(score < least)) continue;
        least = score;
        best = index;
    }
    g->index = end;
    return loop + own;
}

/* Chain number of the seed behind those that are in m; the length is known already. */
static int eqnn__backbone(eqnn_ctx *c, eqnn__growing *g, eqnn_proteins *m, uint64_t number)
{
    size_t from = (size_t)m->residues;
    int n = g->length;
    g->pos = m->pos + 12 * from;
    g->kind = m->kind + from;
    for (int at = 0; at < n;) at += eqnn__grow_piece(g, at);
    for (int k = 0; k < 3; k++) {
        double middle = 0;
        for (int i = 0; i < n; i++) middle += g->pos[12 * i + 3 + k] / n;
        for (int i = 0; i < 4 * n; i++) g->pos[3 * i + k] -= middle;
    }
    for (int i = 0; i < n; i++) m->number[from + (size_t)i] = i + 1;
    snprintf(m->name[m->chains], sizeof m->name[0], "%d", (int)(number % 1000000000));
    m->residues += n;
    m->first[++m->chains] = m->residues;
    return eqnn_augment(c, g->seed, g->stream, 1, 0, 4 * n, 3, g->pos);
}

static eqnn_backbone_opts eqnn__backbone_defaults(const eqnn_backbone_opts *opts, const eqnn_ctx *c)
{
    eqnn_backbone_opts o;
    memset(&o, 0, sizeof o);
    if (opts) o = *opts;
    if (o.least == 0) o.least = o.most > 0 && o.most < 40 ? o.most : 40;
    if (o.most == 0) o.most = o.least > 80 ? o.least : 80;
    o.spread = o.spread < 0 ? 0 : eqnn__data_or(o.spread, 5);
    if (o.seed == 0) o.seed = eqnn_seed(c);
    return o;
}

/* A stream of its own for each chain, whose first number is the length. */
static void eqnn__backbone_start(eqnn__growing *g, const eqnn_backbone_opts *o, uint64_t number)
{
    g->stream = ((number + 1) << 32) + EQNN__STREAM_AUGMENT;
    g->seed = o->seed;
    g->index = 0;
    g->length = o->least + (int)((o->most - o->least + 1) * eqnn__grow_uniform(g));
}

EQNN_API eqnn_proteins *eqnn_backbones(eqnn_ctx *c, const eqnn_backbone_opts *opts, uint64_t first,
                                       int n)
{
    eqnn_backbone_opts o = eqnn__backbone_defaults(opts, c);
    eqnn__growing g;
    int64_t all = 0;
    memset(&g, 0, sizeof g);
    g.spread = o.spread;
    if (eqnn_error(c)) return NULL;
    if (n < 0 || o.least < 1 || o.most < o.least || o.most > 100000) {
        eqnn_fail(c, "backbones: %d chains of %d to %d residues", n, o.least, o.most);
        return NULL;
    }
    if (!isfinite(o.spread)) {
        eqnn_fail(c, "backbones: the spread is %g degrees", o.spread);
        return NULL;
    }
    for (int i = 0; i < n; i++) {
        eqnn__backbone_start(&g, &o, first + (uint64_t)i);
        all += g.length;
    }
    eqnn_proteins *m = all < INT_MAX / 12 ? eqnn__proteins_make(c, n, (int)all) : NULL;
    g.torsion = (double *)malloc(2 * (size_t)o.most * sizeof(double));
    int good = m && g.torsion;
    if (!good) eqnn_fail(c, "backbones: no memory for %d chains", n);
    for (int i = 0; good && i < n; i++) {
        eqnn__backbone_start(&g, &o, first + (uint64_t)i);
        good = eqnn__backbone(c, &g, m, first + (uint64_t)i);
    }
    free(g.torsion);
    if (good) return m;
    eqnn_proteins_free(m);
    return NULL;
}

/* ------------------------------------------------------------------------------------------------
   3 >>batches
   ---------------------------------------------------------------------------------------------- */

/* Fisher-Yates: item i changes places with one of the items 0..i. */
EQNN_API void eqnn_permutation(uint64_t seed, uint64_t stream, int n, int *out)
{
    if (!out) return;
    for (int i = 0; i < n; i++) out[i] = i;
    for (int i = n - 1; i > 0; i--) {
        uint64_t bits = eqnn__data_bits(seed, stream, (uint64_t)i) >> 32;
        int j = (int)(bits * ((uint64_t)i + 1) >> 32), other = out[j];
        out[j] = out[i];
        out[i] = other;
    }
}

/* Is there what a split needs? missing: the array that is NULL, or NULL. */
static int eqnn__split_given(eqnn_ctx *c, int n, int parts, const char *missing)
{
    if (eqnn_error(c)) return 0;
    if (n < 0 || parts < 1)
        eqnn_fail(c, "split: %d examples into %d parts: needs at least 0 and at least 1", n, parts);
    else if (missing)
        eqnn_fail(c, "split: %d examples into %d parts: %s is NULL", n, parts, missing);
    return !eqnn_error(c);
}

EQNN_API int eqnn_split(eqnn_ctx *c, int n, const double *fractions, int parts, int shuffled,
                        int *items, int *first)
{
    double sum = 0;
    const char *missing = !fractions ? "fractions" : !items ? "items" : first ? NULL : "first";
    if (!eqnn__split_given(c, n, parts, missing)) return 0;
    for (int k = 0; k < parts; k++) {
        if (!(fractions[k] >= 0)) {
            eqnn_fail(c, "split: fraction %d of %d is %g", k + 1, parts, fractions[k]);
            return 0;
        }
        sum += fractions[k];
    }
    if (!(sum > 0 && sum < 1 + 1e-9)) {
        eqnn_fail(c, "split: %d examples into %d parts with fractions of sum %g: "
                     "needs a sum above 0 and at most 1", n, parts, sum);
        return 0;
    }
    if (shuffled) eqnn_permutation(eqnn_seed(c), EQNN__STREAM_SPLIT, n, items);
    for (int i = 0; !shuffled && i < n; i++) items[i] = i;
    sum = 0;
    for (int k = 0; k < parts; k++) {
        first[k] = (int)floor(n * sum + 1e-6);
        sum += fractions[k];
    }
    first[parts] = n;
    return 1;
}

EQNN_API int eqnn_split_counts(eqnn_ctx *c, uint64_t seed, int n, const int *counts, int parts,
                               int *items, int *first)
{
    int64_t wanted = 0;
    const char *missing = !counts ? "counts" : !items ? "items" : first ? NULL : "first";
    if (!eqnn__split_given(c, n, parts, missing)) return 0;
    for (int k = 0; k < parts; k++) {
        wanted += counts[k];
        if (counts[k] >= 0) continue;
        eqnn_fail(c, "split: count %d of %d is %d", k + 1, parts, counts[k]);
        return 0;
    }
    if (wanted > n) {
        eqnn_fail(c, "split: %d examples into %d parts: there are fewer examples than the parts "
                     "ask for, %.0f", n, parts, (double)wanted);
        return 0;
    }
    int *all = (int *)malloc(((size_t)n + 1) * sizeof *all);
    if (!all) {
        eqnn_fail(c, "split: %d examples into %d parts: no memory", n, parts);
        return 0;
    }
    eqnn_permutation(seed, EQNN__STREAM_SPLIT, n, all);
    for (int i = 0; i < (int)wanted; i++) items[i] = all[i];
    first[0] = 0;
    for (int k = 0; k < parts; k++) first[k + 1] = first[k] + counts[k];
    free(all);
    return 1;
}

struct eqnn_batches {
    int n, size, shuffled, at;
    uint64_t seed;
    int *items, *order;  /* as given; in this epoch's order */
};

EQNN_API void eqnn_batches_free(eqnn_batches *b)
{
    if (!b) return;
    free(b->items);
    free(b->order);
    free(b);
}

EQNN_API eqnn_batches *eqnn_batches_make(eqnn_ctx *c, int n, const int *items, int size,
                                         int shuffled)
{
    if (eqnn_error(c)) return NULL;
    if (n < 0 || size < 1) {
        eqnn_fail(c, "batches: %d examples in batches of %d: needs at least 0 and at least 1", n,
                  size);
        return NULL;
    }
    eqnn_batches *b = (eqnn_batches *)calloc(1, sizeof *b);
    if (b) {
        b->items = (int *)malloc(((size_t)n + 1) * sizeof(int));
        b->order = (int *)malloc(((size_t)n + 1) * sizeof(int));
    }
    if (!b || !b->items || !b->order) {
        eqnn_fail(c, "batches: no memory for %d examples", n);
        eqnn_batches_free(b);
        return NULL;
    }
    b->n = n;
    b->size = size;
    b->shuffled = shuffled;
    b->seed = eqnn_seed(c);
    for (int i = 0; i < n; i++) b->items[i] = items ? items[i] : i;
    eqnn_batches_start(b, 0);
    return b;
}

EQNN_API int eqnn_batches_count(const eqnn_batches *b)
{
    return b ? b->n / b->size + (b->n % b->size != 0) : 0;
}

EQNN_API void eqnn_batches_start(eqnn_batches *b, int64_t epoch)
{
    if (!b) return;
    b->at = 0;
    uint64_t stream = EQNN__STREAM_EPOCH + (uint64_t)epoch;
    if (b->shuffled) eqnn_permutation(b->seed, stream, b->n, b->order);
    for (int i = 0; i < b->n; i++) b->order[i] = b->items[b->shuffled ? b->order[i] : i];
}

EQNN_API int eqnn_batches_next(eqnn_batches *b, const int **items)
{
    if (!b || !items || b->at >= b->n) return 0;
    int n = b->n - b->at < b->size ? b->n - b->at : b->size;
    *items = b->order + b->at;
    b->at += n;
    return n;
}

/* ------------------------------------------------------------------------------------------------
   4 >>metrics
   ---------------------------------------------------------------------------------------------- */

EQNN_API void eqnn_average_add(eqnn_average *m, double value, double weight)
{
    if (!m || weight == 0) return;
    m->weight += weight;
    m->value += (value - m->value) * (weight / m->weight);
}

EQNN_API double eqnn_average_value(const eqnn_average *m)
{
    return m && m->weight != 0 ? m->value : NAN;
}

/* With d = new - old mean: mean += d / n, and the co-moment grows by d_y (f - new mean of f). */
EQNN_API void eqnn_score_add(eqnn_score *s, size_t n, const double *truth, const double *predicted)
{
    for (size_t i = 0; s && truth && predicted && i < n; i++) {
        double y = truth[i], f = predicted[i], dy = y - s->mean_y, df = f - s->mean_f;
        s->n += 1;
        s->mean_y += dy / s->n;
        s->mean_f += df / s->n;
        s->yy += dy * (y - s->mean_y);
        s->ff += df * (f - s->mean_f);
        s->yf += dy * (f - s->mean_f);
        s->square += (y - f) * (y - f);
        s->absolute += fabs(y - f);
    }
}

EQNN_API double eqnn_score_mse(const eqnn_score *s)
{
    return s && s->n > 0 ? s->square / s->n : NAN;
}

EQNN_API double eqnn_score_mae(const eqnn_score *s)
{
    return s && s->n > 0 ? s->absolute / s->n : NAN;
}

EQNN_API double eqnn_score_r2(const eqnn_score *s)
{
    return s && s->yy > 0 ? 1 - s->square / s->yy : NAN;
}

EQNN_API double eqnn_score_pearson(const eqnn_score *s)
{
    return s && s->yy > 0 && s->ff > 0 ? s->yf / sqrt(s->yy) / sqrt(s->ff) : NAN;
}

EQNN_API double eqnn_rmsd(int n, const double *a, const double *b)
{
    double sum = 0;
    if (!a || !b) return NAN;
    for (int i = 0; i < 3 * n; i++) sum += (a[i] - b[i]) * (a[i] - b[i]);
    return n > 0 ? sqrt(sum / n) : NAN;
}

/* One of Jacobi's rotations of a symmetric matrix: A[p][q] becomes 0. */
static void eqnn__turn4(double A[4][4], int p, int q)
{
    if (A[p][q] == 0) return;
    double t = (A[q][q] - A[p][p]) / (2 * A[p][q]);
    t = (t < 0 ? -1 : 1) / (fabs(t) + sqrt(t * t + 1));
    double c = 1 / sqrt(t * t + 1), s = t * c;
    for (int side = 0; side < 2; side++)
        for (int k = 0; k < 4; k++) {
            double *x = side ? &A[p][k] : &A[k][p], *y = side ? &A[q][k] : &A[k][q], old = *x;
            *x = c * old - s * *y;
            *y = s * old + c * *y;
        }
}

/* The least sum of squares is |a|^2 + |b|^2 - 2 w, centred, w the largest eigenvalue of the matrix
   of Horn 1987 (J. Opt. Soc. Am. A 4, 629), which is made of S = sum a b^T. */
EQNN_API double eqnn_rmsd_fitted(int n, const double *a, const double *b)
{
    double S[3][3], A[4][4], ma[3] = { 0, 0, 0 }, mb[3] = { 0, 0, 0 }, size = 0, w = -INFINITY;
    memset(S, 0, sizeof S);
    if (!a || !b) return NAN;
    for (int i = 0; i < 3 * n; i++) ma[i % 3] += a[i] / n, mb[i % 3] += b[i] / n;
    for (int i = 0; i < n; i++)
        for (int k = 0; k < 3; k++) {
            double x = a[3 * i + k] - ma[k], y = b[3 * i + k] - mb[k];
            size += x * x + y * y;
            for (int l = 0; l < 3; l++) S[k][l] += x * (b[3 * i + l] - mb[l]);
        }
    A[0][0] = S[0][0] + S[1][1] + S[2][2];
    for (int k = 0; k < 3; k++) {
        int l = (k + 1) % 3, m = (k + 2) % 3;
        A[0][k + 1] = A[k + 1][0] = S[l][m] - S[m][l];
        A[k + 1][k + 1] = S[k][k] - S[l][l] - S[m][m];
        A[k + 1][l + 1] = A[l + 1][k + 1] = S[k][l] + S[l][k];
    }
    for (int sweep = 0; sweep < 12; sweep++)
        for (int p = 0; p < 3; p++)
            for (int q = p + 1; q < 4; q++) eqnn__turn4(A, p, q);
    for (int k = 0; k < 4; k++) w = fmax(w, A[k][k]);
    if (!isfinite(size)) return NAN;
    return n > 0 ? sqrt(fmax(0, size - 2 * w) / n) : NAN;
}

/* ------------------------------------------------------------------------------------------------
   5 >>terminal
   ---------------------------------------------------------------------------------------------- */

EQNN_API double eqnn_clock(void)
{
#if defined(_MSC_VER)
    struct timespec now;
    timespec_get(&now, TIME_UTC);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
#else
    struct timeval now;
    gettimeofday(&now, NULL);
    return (double)now.tv_sec + 1e-6 * (double)now.tv_usec;
#endif
}

EQNN_API int eqnn_is_terminal(FILE *file)
{
    const char *kind = getenv("TERM");
    int number = file == stdout ? 1 : file == stderr ? 2 : -1;
    if (number < 0 || (kind && strcmp(kind, "dumb") == 0)) return 0;
#if defined(_WIN32)
    return _isatty(number);
#else
    return isatty(number);
#endif
}

EQNN_API int eqnn_colour(FILE *file)
{
    const char *no = getenv("NO_COLOR"); /* no-color.org: any text but the empty one */
    return eqnn_is_terminal(file) && !(no && *no);
}

/* The one variable of this library that belongs to no context: signals have none. */
static volatile sig_atomic_t eqnn__interrupt_flag = 0;

static void eqnn__interrupt_raise(int number)
{
    eqnn__interrupt_flag = 1;
    signal(number, SIG_DFL);
}

EQNN_API void eqnn_interrupt_catch(void)
{
    signal(SIGINT, eqnn__interrupt_raise);
}

EQNN_API int eqnn_interrupted(void)
{
    return eqnn__interrupt_flag != 0;
}

/* ---- options ---- */

EQNN_API int eqnn_args_fail(eqnn_args *a, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    if (!a->error[0]) vsnprintf(a->error, sizeof a->error, format, list);
    va_end(list);
    return -1;
}

static int eqnn__args_entry(const eqnn_args *a, const char *name, size_t length)
{
    for (int i = 0; i < a->count; i++) {
        const char *own = a->option[i].name;
        size_t k = 0;
        while (k < length && own[k] && (own[k] == name[k] || (own[k] == '-' && name[k] == '_')))
            k++;
        if (k == length && !own[k]) return i;
    }
    return -1;
}

static int eqnn__args_alias(const eqnn_option *o)
{
    return !o->help && o->value && strncmp(o->value, "--", 2) == 0;
}

/* The option of that name, by whichever of its names; -1: there is none. */
static int eqnn__args_find(const eqnn_args *a, const char *name, size_t length)
{
    int i = eqnn__args_entry(a, name, length);
    if (i < 0 || !eqnn__args_alias(&a->option[i])) return i;
    name = a->option[i].value + 2;
    return eqnn__args_entry(a, name, strlen(name));
}

static int eqnn__args_switch(const eqnn_args *a, int i)
{
    const char *v = a->option[i].value;
    return v && (strcmp(v, "on") == 0 || strcmp(v, "off") == 0);
}

/* "on" or "off" of a word that says so in any language, else NULL. */
static const char *eqnn__args_truth(const char *word)
{
    if (!word) return NULL;
    if (!strcmp(word, "on") || !strcmp(word, "True") || !strcmp(word, "true")) return "on";
    if (!strcmp(word, "off") || !strcmp(word, "False") || !strcmp(word, "false")) return "off";
    return NULL;
}

/* Takes a list of options over; a name that is there already gets the new default and help. */
static void eqnn__args_add(eqnn_args *a, const eqnn_option *list)
{
    for (; list && list->name; list++) {
        int i = eqnn__args_entry(a, list->name, strlen(list->name));
        if (i < 0 && a->count == EQNN_ARGS_MAX) {
            eqnn_args_fail(a, "the program has more than %d options", EQNN_ARGS_MAX);
            return;
        }
        if (i < 0) i = a->count++;
        a->option[i] = *list;
    }
}

static int eqnn__args_word(eqnn_args *a, const char *word, const char *next);

/* The entries of "{'name': value, ..}", each as a word "--name=value". */
static void eqnn__args_dictionary(eqnn_args *a, const char *text)
{
    size_t n = strlen(text);
    const char *list = text + 1, *entry;
    if (text[0] != '{' || text[n - 1] != '}' || strchr(list, '{') ||
        n * 3 + (size_t)a->used > sizeof a->words) {
        eqnn_args_fail(a, "'%.80s' is no dictionary of options {'name': value, ..}", text);
        return;
    }
    for (int k; (k = eqnn_next_word(&list, &entry)) > 0 && !a->error[0];) {
        char *word = a->words + a->used, *at = word, *colon;
        *at++ = '-', *at++ = '-';
        for (int i = 0; i < k; i++)
            if (!strchr(" '\"}", entry[i])) *at++ = entry[i];
        *at++ = 0;
        a->used += (int)(at - word);
        if ((colon = strchr(word, ':')) != NULL) *colon = '=';
        if (word[2]) eqnn__args_word(a, word, NULL);
    }
}

/* One "--name", "--name=value", "--no-name" or "--name value"; returns how many words it took. */
static int eqnn__args_word(eqnn_args *a, const char *word, const char *next)
{
    if (word[0] != '-' || word[1] != '-' || !word[2])
        return eqnn_args_fail(a, "'%s' is not an option; --help lists them", word);
    const char *name = word + 2, *equal = strchr(name, '=');
    size_t length = equal ? (size_t)(equal - name) : strlen(name);
    int i = eqnn__args_find(a, name, length);
    if (i < 0 && !equal && length > 3 && memcmp(name, "no-", 3) == 0) {
        i = eqnn__args_find(a, name + 3, length - 3);
        if (i >= 0 && eqnn__args_switch(a, i)) {
            a->option[i].value = "off";
            a->given[i] = 1;
            return 1;
        }
        i = -1;
    }
    if (i < 0) return eqnn_args_fail(a, "unknown option '%s'; --help lists them", word);
    if (!a->option[i].value)
        return eqnn_args_fail(a, "this program does not take '%s'; --help lists what it takes",
                              word);
    int is_switch = eqnn__args_switch(a, i), takes = !is_switch || eqnn__args_truth(next);
    int words = equal || !takes ? 1 : 2;
    const char *value = equal ? equal + 1 : takes ? next : "on";
    if (!value) return eqnn_args_fail(a, "option '%s' needs a value", word);
    if (is_switch && !eqnn__args_truth(value))
        return eqnn_args_fail(a, "option --%s: on or off, not '%s'", a->option[i].name, value);
    if (is_switch) value = eqnn__args_truth(value);
    if (!strcmp(a->option[i].value, "{}")) eqnn__args_dictionary(a, value);
    else a->option[i].value = value;
    a->given[i] = 1;
    return words;
}

EQNN_API int eqnn_args_read(eqnn_args *a, int argc, char **argv, const char *about,
                            const eqnn_option *own)
{
    static const eqnn_option common[] = {
        { "seed", "0", "of every random number" },
        { "threads", "0", "0: as many as there are" },
        { "epochs", "10", "passes over the training data" },
        { "data", "", "file or folder to read" },
        { "out", "", "folder for logs, pictures and models" },
        { "resume", "off", "continue from the checkpoint in --out" },
        { "device", "cpu", "where to compute: cpu, cuda, cuda:1, .." },
        { NULL, NULL, NULL }
    };
    memset(a, 0, sizeof *a);
    a->program = argc > 0 ? argv[0] : "program";
    a->about = about;
    eqnn__args_add(a, own);
    int mine = a->count;
    eqnn__args_add(a, common);
    a->count = mine < a->count ? a->count : mine;
    eqnn__args_add(a, own); /* own defaults win over common ones */
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            eqnn_args_help(a, stdout);
            a->help = 1;
            return 0;
        }
    for (int i = 1; i < argc && !a->error[0];)
        i += eqnn__args_word(a, argv[i], i + 1 < argc ? argv[i + 1] : NULL);
    return a->error[0] ? -1 : 1;
}

EQNN_API void eqnn_args_help(const eqnn_args *a, FILE *file)
{
    fprintf(file, "%s\n\nusage: %s [options]\n\n", a->about ? a->about : "", a->program);
    for (int i = 0; i < a->count; i++) {
        const eqnn_option *o = &a->option[i];
        char left[64];
        if (!o->value) continue;
        snprintf(left, sizeof left, "--%s%s", o->name, eqnn__args_switch(a, i) ? "" : " ...");
        if (eqnn__args_alias(o)) {
            fprintf(file, "  %-18s the same as %s\n", left, o->value);
            continue;
        }
        fprintf(file, "  %-18s %s", left, o->help ? o->help : "");
        if (*o->value && strcmp(o->value, "{}")) fprintf(file, " [%s]", o->value);
        fprintf(file, "\n");
    }
    fprintf(file, "  %-18s this text\n", "--help");
}

EQNN_API const char *eqnn_args_text(eqnn_args *a, const char *name)
{
    int i = eqnn__args_find(a, name, strlen(name));
    if (i < 0) eqnn_args_fail(a, "the program asks for an option '%s' it does not list", name);
    return i < 0 || !a->option[i].value ? "" : a->option[i].value;
}

EQNN_API int eqnn_args_int(eqnn_args *a, const char *name, int low, int high)
{
    const char *text = eqnn_args_text(a, name);
    char *end;
    errno = 0;
    long v = strtol(text, &end, 10);
    if (end == text || *end || errno || v < low || v > high) {
        eqnn_args_fail(a, "option --%s: '%s' is not a whole number from %d to %d", name, text, low,
                       high);
        return low;
    }
    return (int)v;
}

EQNN_API double eqnn_args_number(eqnn_args *a, const char *name)
{
    const char *text = eqnn_args_text(a, name);
    const char *end;
    double v = eqnn__decimal(text, &end);
    if (end != text && *end == '/' && end[1]) v /= eqnn__decimal(end + 1, &end);
    if (end == text || *end || !isfinite(v)) {
        eqnn_args_fail(a, "option --%s: '%s' is not a number", name, text);
        return 0;
    }
    return v;
}

EQNN_API double eqnn_args_within(eqnn_args *a, const char *name, double low, double high)
{
    double v = eqnn_args_number(a, name);
    if (!(v >= low && v <= high))
        eqnn_args_fail(a, "option --%s: %g is not in %g..%g", name, v, low, high);
    return v;
}

EQNN_API int eqnn_args_on(eqnn_args *a, const char *name)
{
    return strcmp(eqnn_args_text(a, name), "on") == 0;
}

EQNN_API int eqnn_args_choice(eqnn_args *a, const char *name, const char *words)
{
    const char *text = eqnn_args_text(a, name), *list = words, *word;
    for (int i = 0, n; (n = eqnn_next_word(&list, &word)) > 0; i++)
        if (strlen(text) == (size_t)n && !memcmp(text, word, (size_t)n)) return i;
    eqnn_args_fail(a, "option --%s: '%.40s' is none of %s", name, text, words);
    return 0;
}

EQNN_API int eqnn_args_given(const eqnn_args *a, const char *name)
{
    int i = eqnn__args_find(a, name, strlen(name));
    return i >= 0 && a->given[i];
}

EQNN_API void eqnn_args_only(eqnn_args *a, int used, const char *names, const char *what)
{
    const char *name;
    for (int n; !used && (n = eqnn_next_word(&names, &name)) > 0;) {
        int i = eqnn__args_find(a, name, (size_t)n);
        if (i < 0)
            eqnn_args_fail(a, "the program asks for an option '%.*s' it does not list", n, name);
        else if (a->given[i])
            eqnn_args_fail(a, "option --%.*s is of no use here: it is for %s", n, name, what);
    }
}

EQNN_API uint64_t eqnn_args_seed(eqnn_args *a)
{
    const char *text = eqnn_args_text(a, "seed");
    char *end;
    errno = 0;
    unsigned long long v = strtoull(text, &end, 10);
    if (!isdigit((unsigned char)text[0]) || *end || errno)
        eqnn_args_fail(a, "option --seed: '%s' is not a whole number from 0 to 2^64 - 1", text);
    return (uint64_t)v;
}

EQNN_API const char *eqnn_args_settings(eqnn_args *a, const char *names)
{
    size_t used = 0;
    const char *name;
    a->settings[0] = 0;
    for (int n; (n = eqnn_next_word(&names, &name)) > 0;) {
        int i = eqnn__args_find(a, name, (size_t)n);
        const char *value = i < 0 || !a->option[i].value ? "" : a->option[i].value;
        size_t left = sizeof a->settings - used;
        if (i < 0)
            eqnn_args_fail(a, "the program asks for an option '%.*s' it does not list", n, name);
        if (!*value) continue;
        int m = snprintf(a->settings + used, left, "%s--%.*s %s", used ? " " : "", n, name, value);
        if (m < 0 || (size_t)m >= left) eqnn_args_fail(a, "the options are too long together");
        else used += (size_t)m;
    }
    return a->settings;
}

EQNN_API eqnn_opts eqnn_args_context(eqnn_args *a)
{
    eqnn_opts o;
    memset(&o, 0, sizeof o);
    o.seed = eqnn_args_seed(a);
    o.threads = eqnn_args_int(a, "threads", 0, 1024);
    o.device = eqnn_args_text(a, "device");
    return o;
}

EQNN_API int eqnn_next_word(const char **list, const char **word)
{
    int n = 0, depth = 0; /* of parentheses */
    *word = *list;
    for (const char *s = *list; s[n] && (s[n] != ',' || depth > 0); n++)
        depth += (s[n] == '(') - (s[n] == ')');
    *list += n + ((*list)[n] == ',');
    return n;
}

/* "program: sentence", without the folders of the program */
static void eqnn__program_complain(const eqnn_args *a, const char *sentence)
{
    const char *name = a->program;
    for (const char *s = name; *s; s++)
        if (*s == '/' || *s == '\\') name = s + 1;
    fprintf(stderr, "%s: %s\n", name, sentence);
}

EQNN_API eqnn_ctx *eqnn_program_start(eqnn_args *a, const eqnn_opts *opts)
{
    int help = a->help;
    eqnn_ctx *c = help || a->error[0] ? NULL : eqnn_make(opts);
    eqnn_interrupt_catch();
    if (c && eqnn_error(c)) { /* the device cannot be used */
        snprintf(a->error, sizeof a->error, "%.220s (--device cpu)", eqnn_error(c));
        eqnn_free(c);
        c = NULL;
    }
    a->status = c || help ? 0 : a->error[0] ? 2 : 1;
    if (a->status) eqnn__program_complain(a, a->error[0] ? a->error : "no memory");
    return c;
}

EQNN_API int eqnn_program_end(const eqnn_args *a, eqnn_ctx *c)
{
    int failed = c ? eqnn_error(c) != NULL : a->status;
    if (c && failed) eqnn__program_complain(a, eqnn_error(c));
    eqnn_free(c);
    if (!failed && eqnn_interrupted()) failed = 130; /* what a shell makes of Ctrl-C */
    if (fflush(stdout) == 0 && !ferror(stdout)) return failed;
    eqnn__program_complain(a, "not all that it prints could be written");
    return failed ? failed : 1;
}

/* ---- progress ---- */

/* So many of the given parts of the whole are done. */
static int eqnn__progress_parts(const eqnn_progress *p, int64_t done, int parts)
{
    double n = (double)parts * (double)done / (double)p->total;
    return n < 0 ? 0 : n < parts ? (int)n : parts;
}

EQNN_API void eqnn_progress_start(eqnn_progress *p, FILE *file, const char *title, int64_t total,
                                  int64_t done)
{
    memset(p, 0, sizeof *p);
    p->file = file;
    p->title = title ? title : "";
    p->total = total > 0 ? total : 1;
    p->first = done;
    p->start = eqnn_clock();
    p->terminal = eqnn_is_terminal(file);
    p->tenth = eqnn__progress_parts(p, done, 10);
}

/* "1:02:03" or "02:03" */
static void eqnn__progress_time(double seconds, char *text, size_t size)
{
    long s = seconds < 3.6e6 ? (long)(seconds + 0.5) : 3600000;
    if (s >= 3600) snprintf(text, size, "%ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
    else snprintf(text, size, "%02ld:%02ld", s / 60, s % 60);
}

static void eqnn__progress_bar(const eqnn_progress *p, int64_t done, const char *left)
{
    int full = eqnn__progress_parts(p, done, 24), colour = eqnn_colour(p->file);
    fprintf(p->file, "\r%-10s %s", p->title, colour ? "\033[36m" : "");
    for (int i = 0; i < 24; i++) fputc(i < full ? '#' : '.', p->file);
    fprintf(p->file, "%s %3d%%  %s  ", colour ? "\033[0m" : "", eqnn__progress_parts(p, done, 100),
            left);
}

static void eqnn__progress_show(eqnn_progress *p, int64_t done, const char *format, va_list list)
{
    char left[48], text[32];
    double now = eqnn_clock(), used = now - p->start;
    int tenth = eqnn__progress_parts(p, done, 10);
    if (p->terminal ? now - p->shown < 0.1 && done < p->total : tenth <= p->tenth) return;
    p->shown = now;
    p->tenth = tenth;
    int64_t mine = done > p->first ? done - p->first : 1;
    eqnn__progress_time(used / (double)mine * (double)(p->total - done), text, sizeof text);
    if (done >= p->total) eqnn__progress_time(used, text, sizeof text);
    snprintf(left, sizeof left, done < p->total ? "%s left" : "in %s", text);
    if (p->terminal) eqnn__progress_bar(p, done, left);
    else fprintf(p->file, "%s: %3d%%, %s  ", p->title, eqnn__progress_parts(p, done, 100), left);
    if (format) vfprintf(p->file, format, list);
    fputs(p->terminal ? "\033[K" : "\n", p->file);
    fflush(p->file);
}

EQNN_API void eqnn_progress_show(eqnn_progress *p, int64_t done, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    eqnn__progress_show(p, done, format, list);
    va_end(list);
}

EQNN_API void eqnn_progress_end(eqnn_progress *p)
{
    if (p->terminal && p->shown > 0) fputc('\n', p->file);
    fflush(p->file);
}

/* ---- tables ---- */

struct eqnn_table {
    eqnn_ctx *ctx;
    int columns, cells, capacity;
    char (*cell)[48];  /* titles first, then row by row; longer texts are cut */
};

EQNN_API void eqnn_table_free(eqnn_table *t)
{
    if (!t) return;
    free(t->cell);
    free(t);
}

EQNN_API eqnn_table *eqnn_table_make(eqnn_ctx *c, const char *titles)
{
    eqnn_table *t = (eqnn_table *)calloc(1, sizeof *t);
    if (!t) {
        eqnn_fail(c, "table: no memory");
        return NULL;
    }
    t->ctx = c;
    for (const char *s = titles; s;) {
        const char *bar = strchr(s, '|');
        eqnn_table_cell(t, "%.*s", bar ? (int)(bar - s) : (int)strlen(s), s);
        t->columns++;
        s = bar ? bar + 1 : NULL;
    }
    return t;
}

EQNN_API void eqnn_table_cell(eqnn_table *t, const char *format, ...)
{
    va_list list;
    if (!t) return;
    if (t->cells == t->capacity) {
        int capacity = 2 * t->capacity + 64;
        void *cell = realloc(t->cell, (size_t)capacity * sizeof *t->cell);
        if (!cell) {
            eqnn_fail(t->ctx, "table: no memory for %d cells", capacity);
            return;
        }
        t->cell = (char(*)[48])cell;
        t->capacity = capacity;
    }
    va_start(list, format);
    vsnprintf(t->cell[t->cells++], sizeof *t->cell, format, list);
    va_end(list);
}

EQNN_API void eqnn_table_number(eqnn_table *t, const char *format, double value)
{
    if (isfinite(value)) eqnn_table_cell(t, format, value);
    else eqnn_table_cell(t, "-");
}

static int eqnn__table_width(const eqnn_table *t, int column)
{
    int width = 0;
    for (int i = column; i < t->cells; i += t->columns) {
        int n = (int)strlen(t->cell[i]);
        if (n > width) width = n;
    }
    return width;
}

EQNN_API void eqnn_table_print(const eqnn_table *t, FILE *file)
{
    if (!t || t->columns == 0) return;
    for (int i = 0; i < t->cells; i++) {
        int column = i % t->columns, last = column == t->columns - 1 || i == t->cells - 1;
        int width = eqnn__table_width(t, column);
        fprintf(file, "%*s%s", column == 0 ? -width : width, t->cell[i], last ? "\n" : "  ");
        if (i != t->columns - 1) continue;
        for (int k = 0; k < t->columns; k++) { /* a rule under the titles */
            for (int n = eqnn__table_width(t, k); n > 0; n--) fputc('-', file);
            fputs(k + 1 < t->columns ? "  " : "\n", file);
        }
    }
}

/* ---- logs ---- */

struct eqnn_csv {
    eqnn_ctx *ctx;
    FILE *f;
    int cells;
    char *path;
};

/* 1: the file at path begins with that line, 2: and its last line has no end; 0: there is none, or
   it is empty; -1: another line. */
static int eqnn__csv_matches(const char *path, const char *header)
{
    FILE *f = fopen(path, "rb");
    int same = 1, any = 0, ch = 0;
    if (!f) return 0;
    for (const char *s = header; same && *s; s++) {
        ch = fgetc(f);
        any |= ch != EOF;
        same = ch == (unsigned char)*s;
    }
    if (same) ch = fgetc(f);
    same = same && (ch == '\n' || ch == '\r' || ch == EOF);
    int whole = fseek(f, -1, SEEK_END) == 0 && fgetc(f) == '\n';
    fclose(f);
    return !any ? 0 : !same ? -1 : whole ? 1 : 2;
}

EQNN_API void eqnn_csv_close(eqnn_csv *f)
{
    if (!f) return;
    if (f->f) fclose(f->f);
    free(f->path);
    free(f);
}

EQNN_API eqnn_csv *eqnn_csv_open(eqnn_ctx *c, const char *path, const char *header, int append)
{
    if (eqnn_error(c)) return NULL;
    if (!path || !header) {
        eqnn_fail(c, "csv_open: there is no %s", path ? "header" : "path");
        return NULL;
    }
    int there = append ? eqnn__csv_matches(path, header) : 0;
    if (there < 0) {
        eqnn_fail(c, "csv_open: '%s' has other columns than '%s'; remove it or write elsewhere",
                  path, header);
        return NULL;
    }
    eqnn_csv *f = (eqnn_csv *)calloc(1, sizeof *f);
    if (f) f->path = (char *)malloc(strlen(path) + 1);
    if (!f || !f->path) {
        eqnn_fail(c, "csv_open: no memory");
        eqnn_csv_close(f);
        return NULL;
    }
    strcpy(f->path, path);
    f->ctx = c;
    f->f = fopen(path, there ? "ab" : "wb");
    if (!f->f) {
        eqnn_fail(c, "cannot write '%s': %s", path, strerror(errno));
        eqnn_csv_close(f);
        return NULL;
    }
    if (!there) fprintf(f->f, "%s\n", header);
    if (there == 2) fputc('\n', f->f); /* what cut that row short shall not change the next */
    fflush(f->f);
    return f;
}

/* Texts with commas, quotes or line ends are quoted (RFC 4180). */
EQNN_API void eqnn_csv_text(eqnn_csv *f, const char *text)
{
    if (!f) return;
    if (!text) text = "";
    if (f->cells++) fputc(',', f->f);
    if (!strpbrk(text, ",\"\r\n")) {
        fputs(text, f->f);
        return;
    }
    fputc('"', f->f);
    for (; *text; text++) {
        if (*text == '"') fputc('"', f->f);
        fputc(*text, f->f);
    }
    fputc('"', f->f);
}

EQNN_API void eqnn_csv_number(eqnn_csv *f, double value)
{
    char text[40] = "";
    if (isfinite(value)) snprintf(text, sizeof text, "%.9g", value);
    eqnn__pointed(text);
    eqnn_csv_text(f, text);
}

EQNN_API void eqnn_csv_end(eqnn_csv *f)
{
    if (!f) return;
    fputc('\n', f->f);
    f->cells = 0;
    if (fflush(f->f) != 0 || ferror(f->f))
        eqnn_fail(f->ctx, "cannot write '%s': %s", f->path, strerror(errno));
}

EQNN_API void eqnn_csv_row(eqnn_csv *f, const char *text, int n, const double *numbers)
{
    eqnn_csv_text(f, text);
    for (int i = 0; i < n; i++) eqnn_csv_number(f, numbers[i]);
    eqnn_csv_end(f);
}

static int eqnn__data_folder(const char *path)
{
#if defined(_WIN32)
    return _mkdir(path) == 0 || errno == EEXIST;
#else
    struct stat s;
    if (mkdir(path, 0777) == 0) return 1;
    int why = errno; /* some systems say "read only" of a folder that is there */
    int there = stat(path, &s) == 0 && S_ISDIR(s.st_mode);
    errno = why;
    return there;
#endif
}

EQNN_API int eqnn_make_folder(eqnn_ctx *c, const char *path)
{
    char part[1024];
    size_t n = path ? strlen(path) : 0;
    int good = n > 0 && n < sizeof part;
    errno = n > 0 ? ENAMETOOLONG : ENOENT;
    for (size_t i = 1; good && i <= n; i++) {
        if (i < n && path[i] != '/' && path[i] != '\\') continue;
        memcpy(part, path, i);
        part[i] = 0;
        good = eqnn__data_folder(part) || i < n; /* a part above may be closed to us */
    }
    if (!good) eqnn_fail(c, "cannot make the folder '%s': %s", n ? path : "", strerror(errno));
    return good;
}

EQNN_API const char *eqnn_path_in(eqnn_ctx *c, const char *folder, const char *format, ...)
{
    char name[256]; /* no file system allows more */
    va_list list;
    if (!folder || !*folder) return "";
    va_start(list, format);
    int n = vsnprintf(name, sizeof name, format, list);
    va_end(list);
    if (n >= 0 && (size_t)n < sizeof name) return eqnn_format(c, "%s/%s", folder, name);
    eqnn_fail(c, "path_in: '%.40s...' is too long for the name of a file", name);
    return "";
}

/* ------------------------------------------------------------------------------------------------
   6 >>runs
   ---------------------------------------------------------------------------------------------- */

enum { EQNN__GIVEN_NONE, EQNN__GIVEN_STEP, EQNN__GIVEN_LOOK };

EQNN_API double eqnn_run_epochs(const eqnn_run *r)
{
    int n = r ? eqnn_batches_count(r->batches) : 0;
    return n > 0 ? (double)r->steps / n : 0;
}

EQNN_API double eqnn_run_pace(const eqnn_run *r)
{
    return r && r->steps > 0 ? r->step_seconds / (double)r->steps : NAN;
}

EQNN_API double eqnn_run_done(const eqnn_run *r)
{
    if (!r || !eqnn_batches_count(r->batches)) return 1;
    const eqnn_run_opts *o = &r->opts;
    if (o->epochs == 0 && !(o->seconds > 0)) return 1;
    double by_steps = o->epochs > 0 ? eqnn_run_epochs(r) / o->epochs : 0;
    double by_time = o->seconds > 0 ? r->seconds / o->seconds : 0;
    return fmin(fmax(by_steps, by_time), 1);
}

/* How many looks are due when the share t is done; the last one where the run ends. */
static int eqnn__run_looks(const eqnn_run *r, double t)
{
    return (int)(t < 1 ? floor(t * r->opts.looks + 1e-9) : ceil(r->opts.looks));
}

/* "folder/name.best.safetensors" of "folder/name.safetensors"; out [size] */
static void eqnn__run_best_path(const char *path, char *out, size_t size)
{
    const char *ending = ".safetensors";
    size_t n = strlen(path), m = strlen(ending);
    if (n >= m && !strcmp(path + n - m, ending)) n -= m;
    snprintf(out, size, "%.*s.best%s", (int)n, path, ending);
}

EQNN_API void eqnn_run_forget(const char *path)
{
    char best[1100];
    if (!path || !*path || strlen(path) >= 1024) return;
    eqnn__run_best_path(path, best, sizeof best);
    remove(path);
    remove(best);
}

static int eqnn__is_there(const char *path)
{
    FILE *f = fopen(path, "rb");
    if (f) fclose(f);
    return f != NULL;
}

static size_t eqnn__run_numbers(const eqnn_tensor *w)
{
    return (size_t)eqnn_rows(w) * (size_t)eqnn_cols(w);
}

/* Puts parameters and buffers aside. */
static void eqnn__run_keep(eqnn_run *r)
{
    const struct eqnn__params *p = r->ctx->params;
    size_t n = 0, at = 0;
    for (int i = 0; p && i < p->count; i++) n += eqnn__run_numbers(p->all[i]->tensor);
    free(r->weights);
    r->weights = (double *)malloc((n + 1) * sizeof *r->weights);
    r->kept = r->weights && p ? p->count : 0;
    if (!r->weights) eqnn_fail(r->ctx, "run '%s': no memory for the best weights", r->title);
    for (int i = 0; i < r->kept; i++) {
        const eqnn_tensor *w = p->all[i]->tensor;
        const eqnn_real *v = eqnn_data(w);
        n = v ? eqnn__run_numbers(w) : 0;
        for (size_t k = 0; k < n; k++) r->weights[at++] = (double)v[k];
    }
}

static void eqnn__run_write(eqnn_run *r, const char *path)
{
    char text[400];
    if (!*r->path || eqnn_error(r->ctx)) return;
    snprintf(text, sizeof text, "%lld %lld %d %d %d %.17g %.17g %.17g %.17g %.17g %.17g %.17g "
             "%.17g", (long long)r->epoch, (long long)r->steps, r->batch, r->looks, r->looked,
             r->seconds, r->step_seconds, r->loss.weight, r->loss.value, r->score.weight,
             r->score.value, r->value, r->best);
    eqnn__pointed(text);
    if (eqnn_note(r->ctx, "run", text)) eqnn_save(r->ctx, path);
    r->saved = eqnn_clock();
}

/* Where the checkpoint says that the run is; 0 when it does not. */
static int eqnn__run_parse(eqnn_run *r, const char *note)
{
    const char *sign = localeconv()->decimal_point;
    char text[800] = ""; /* as scanf wants it */
    long long epoch, steps;
    for (size_t n = 0; note && *note && n + 16 < sizeof text; note++)
        n += (size_t)snprintf(text + n, 16, *note == '.' ? "%.15s" : "%.1s",
                              *note == '.' ? sign : note);
    if (sscanf(text, "%lld %lld %d %d %d %lf %lf %lf %lf %lf %lf %lf %lf", &epoch, &steps,
                        &r->batch, &r->looks, &r->looked, &r->seconds, &r->step_seconds,
                        &r->loss.weight, &r->loss.value, &r->score.weight, &r->score.value,
                        &r->value, &r->best) != 13)
        return 0;
    r->epoch = epoch;
    r->steps = steps;
    int most = eqnn__run_looks(r, eqnn_run_done(r)); /* fewer when the run became longer */
    if (r->looks > most) r->looks = most;
    return epoch >= 0 && steps >= 0 && r->batch >= 0;
}

/* How long the setting at the start of s is: to the next " --", or to the end. */
static int eqnn__setting_length(const char *s)
{
    const char *end = strstr(s, " --");
    return (int)(end ? (size_t)(end - s) : strlen(s));
}

/* A run that goes on with other examples or another rate would be neither of both. */
static void eqnn__run_compare(eqnn_run *r, const char *now)
{
    const char *then = eqnn_noted(r->ctx, "settings");
    if (!then || !now || !strcmp(then, now)) return;
    while (*then && *now) { /* past what is the same */
        int n = eqnn__setting_length(then);
        if (n != eqnn__setting_length(now) || strncmp(then, now, (size_t)n)) break;
        then += n + (then[n] == ' ');
        now += n + (now[n] == ' ');
    }
    eqnn_fail(r->ctx, "run '%s': cannot resume, '%.200s' was begun with %.*s, now it is %.*s",
              r->title, r->path, *then ? eqnn__setting_length(then) : 4, *then ? then : "less",
              *now ? eqnn__setting_length(now) : 4, *now ? now : "less");
}

/* The best weights first, which are put aside, then everything. */
static void eqnn__run_resume(eqnn_run *r)
{
    char best[1100];
    eqnn_load_opts o;
    memset(&o, 0, sizeof o);
    o.weights_only = 1;
    if (!eqnn__is_there(r->path)) return;
    if (!eqnn_parameter_count(r->ctx)) {
        eqnn_fail(r->ctx, "run '%s': to resume, call the model once before: there are no weights",
                  r->title);
        return;
    }
    eqnn__run_best_path(r->path, best, sizeof best);
    if (eqnn__is_there(best) && eqnn_load(r->ctx, best, &o)) eqnn__run_keep(r);
    if (!eqnn_load(r->ctx, r->path, NULL)) return;
    if (!eqnn__run_parse(r, eqnn_noted(r->ctx, "run")))
        eqnn_fail(r->ctx, "'%s' does not say how far the run had come", r->path);
    else if (r->best < INFINITY && !r->weights)
        eqnn_fail(r->ctx, "'%s' is missing, the best weights of the run", best);
    eqnn__run_compare(r, r->opts.settings);
}

/* What is wrong with the options, or NULL. */
static const char *eqnn__run_bad(int n, const eqnn_run_opts *o)
{
    if (n < 0) return "a negative number of examples";
    if (o->batch < 0 || o->epochs < 0) return "a negative batch or number of epochs";
    if (!(o->seconds >= 0 && o->seconds < INFINITY)) return "seconds are not a number from 0 on";
    if (!(o->looks >= 0 && o->looks < 1e9)) return "looks are not a number from 0 to 1e9";
    if (o->save < 0) return "a negative time between checkpoints";
    if (o->path && strlen(o->path) >= 1024) return "the path of the checkpoint is too long";
    return NULL;
}

static eqnn_run_opts eqnn__run_defaults(const eqnn_run_opts *opts)
{
    eqnn_run_opts o;
    memset(&o, 0, sizeof o);
    if (opts) o = *opts;
    if (o.batch == 0) o.batch = 1;
    if (!(o.save < 0 || o.save > 0)) o.save = 120;
    return o;
}

EQNN_API eqnn_run_opts eqnn_args_run(eqnn_args *a, const char *settings)
{
    eqnn_run_opts o;
    memset(&o, 0, sizeof o);
    o.resume = eqnn_args_on(a, "resume");
    o.settings = eqnn_args_settings(a, settings);
    o.epochs = eqnn_args_int(a, "epochs", 0, 10000000);
    if (eqnn__args_find(a, "evals", 5) >= 0) o.looks = eqnn_args_int(a, "evals", 1, 100000);
    if (eqnn__args_find(a, "minutes", 7) < 0) return o;
    o.seconds = 60 * eqnn_args_within(a, "minutes", 0, 1e9);
    int told = eqnn_args_given(a, "epochs");
    if (told && (o.epochs == 0 || !eqnn_args_given(a, "minutes"))) o.seconds = 0;
    if (!told && o.seconds > 0) o.epochs = 0;
    return o;
}

EQNN_API eqnn_run *eqnn_run_make(eqnn_ctx *c, const char *title, int n, const eqnn_run_opts *opts)
{
    if (!c || eqnn_error(c)) return NULL;
    eqnn_run_opts o = eqnn__run_defaults(opts);
    const char *bad = eqnn__run_bad(n, &o);
    eqnn_run *r = bad ? NULL : (eqnn_run *)calloc(1, sizeof *r);
    if (!r) {
        eqnn_fail(c, "run '%.60s': %s", title ? title : "", bad ? bad : "no memory");
        return NULL;
    }
    r->ctx = c;
    r->opts = o;
    r->value = NAN;
    r->best = INFINITY;
    snprintf(r->title, sizeof r->title, "%s", title ? title : "");
    snprintf(r->path, sizeof r->path, "%s", o.path ? o.path : "");
    r->batches = eqnn_batches_make(c, n, o.items, o.batch, !o.in_order);
    if (o.resume && *r->path && r->batches) eqnn__run_resume(r);
    if (o.settings) eqnn_note(c, "settings", o.settings);
    r->opts.items = NULL; /* are copied, as path and settings are */
    r->opts.path = r->opts.settings = NULL;
    if (!eqnn_error(c)) {
        eqnn_batches_start(r->batches, r->epoch);
        return r;
    }
    r->ended = 1; /* nothing to save */
    eqnn_run_free(r);
    return NULL;
}

EQNN_API void eqnn_run_free(eqnn_run *r)
{
    if (!r) return;
    eqnn_run_end(r);
    eqnn_batches_free(r->batches);
    free(r->weights);
    free(r);
}

EQNN_API void eqnn_run_save(eqnn_run *r)
{
    if (r && !r->given) eqnn__run_write(r, r->path);
}

EQNN_API void eqnn_run_end(eqnn_run *r)
{
    if (!r || r->ended) return;
    r->ended = 1;
    if (r->shown) eqnn_progress_end(&r->bar);
    if (r->given != EQNN__GIVEN_LOOK) eqnn__run_write(r, r->path); /* else it is: see _next */
}

EQNN_API int eqnn_run_best(eqnn_run *r)
{
    if (!r) return 0;
    eqnn_run_end(r);
    if (!r->weights || !(r->best < INFINITY) || eqnn_error(r->ctx)) return 0;
    const double *from = r->weights;
    for (int i = 0; i < r->kept; i++) {
        eqnn_set(r->ctx->params->all[i]->tensor, from);
        from += eqnn__run_numbers(r->ctx->params->all[i]->tensor);
    }
    return !eqnn_error(r->ctx);
}

EQNN_API double eqnn_run_rate(const eqnn_run *r, const eqnn_schedule *s)
{
    eqnn_schedule all;
    if (!s) return NAN;
    all = *s;
    all.total = 1000000;
    return eqnn_schedule_rate(&all, (int64_t)((double)all.total * eqnn_run_done(r)));
}

EQNN_API void eqnn_run_show(eqnn_run *r, const char *format, ...)
{
    va_list list;
    if (!r || !r->shown) return;
    va_start(list, format);
    eqnn__progress_show(&r->bar, (int64_t)(1000 * eqnn_run_done(r)), format, list);
    va_end(list);
}

/* Time since it was last counted. */
static void eqnn__run_count(eqnn_run *r)
{
    double now = eqnn_clock();
    r->seconds += now - r->clock;
    r->clock = now;
}

/* The first time: bar and clock. */
static void eqnn__run_start(eqnn_run *r)
{
    r->shown = 1;
    eqnn_progress_start(&r->bar, stderr, r->title, 1000, (int64_t)(1000 * eqnn_run_done(r)));
    r->clock = r->saved = eqnn_clock();
}

/* The batch that comes next; a look's averages are over. */
static int eqnn__run_batch(eqnn_run *r, const int **items)
{
    if (r->looked) {
        memset(&r->loss, 0, sizeof r->loss);
        memset(&r->score, 0, sizeof r->score);
        r->looked = 0;
    }
    if (r->batch >= eqnn_batches_count(r->batches)) {
        r->batch = 0;
        eqnn_batches_start(r->batches, ++r->epoch);
    }
    r->batches->at = r->batch * r->opts.batch;
    r->begun = eqnn_clock();
    return eqnn_batches_next(r->batches, items);
}

EQNN_API int eqnn_run_next(eqnn_run *r, const int **items)
{
    if (!r || r->ended) return -1;
    if (!r->shown) eqnn__run_start(r);
    double t = eqnn_run_done(r);
    int due = r->steps > 0 && eqnn__run_looks(r, t) > r->looks;
    int over = eqnn_interrupted() || (t >= 1 && !due);
    if (r->given && !over)
        eqnn_fail(r->ctx, "run '%s': eqnn_run_next again without eqnn_run_%s", r->title,
                  r->given == EQNN__GIVEN_STEP ? "step" : "look");
    if (!over && (due || eqnn_clock() - r->saved >= r->opts.save)) eqnn__run_write(r, r->path);
    if (over || eqnn_error(r->ctx)) {
        eqnn_run_end(r);
        return -1;
    }
    r->given = due ? EQNN__GIVEN_LOOK : EQNN__GIVEN_STEP;
    return due ? 0 : eqnn__run_batch(r, items);
}

EQNN_API void eqnn_run_step(eqnn_run *r, double loss, int n)
{
    if (!r || r->given != EQNN__GIVEN_STEP || eqnn_error(r->ctx)) return;
    r->given = EQNN__GIVEN_NONE;
    r->steps++;
    r->batch++;
    eqnn_average_add(&r->loss, loss, n);
    eqnn__run_count(r);
    r->step_seconds += r->clock - r->begun;
}

EQNN_API int eqnn_run_look(eqnn_run *r, double value)
{
    char best[1100];
    if (!r || r->given != EQNN__GIVEN_LOOK || eqnn_error(r->ctx) || eqnn_interrupted()) return 0;
    r->given = EQNN__GIVEN_NONE;
    eqnn__run_count(r);
    r->looked = 1;
    r->looks = eqnn__run_looks(r, eqnn_run_done(r));
    r->value = value;
    if (value < r->best) {
        r->best = value;
        eqnn__run_keep(r);
        eqnn__run_best_path(r->path, best, sizeof best);
        eqnn__run_write(r, best);
    }
    return !eqnn_error(r->ctx);
}

/* ------------------------------------------------------------------------------------------------
   7 >>plots
   ---------------------------------------------------------------------------------------------- */

typedef struct eqnn__plot_series {
    char label[64], colour[48];
    int n, points, dashed;
    double size, opacity, *x, *y;
} eqnn__plot_series;

struct eqnn_plot {
    eqnn_ctx *ctx;
    eqnn_plot_opts o;
    char title[160], x_label[96], y_label[96];
    int count, capacity;
    eqnn__plot_series *series;
};

/* Okabe and Ito's colours (jfly.uni-koeln.de/color, 2002), those that show on white. */
enum { EQNN__COLOURS = 7 };
static const char *eqnn__plot_palette(int i)
{
    static const char *const colours[EQNN__COLOURS] = { "#0072b2", "#d55e00", "#009e73", "#cc79a7",
                                                        "#e69f00", "#56b4e9", "#333333" };
    return colours[i % EQNN__COLOURS];
}

static eqnn_plot_opts eqnn__plot_defaults(const eqnn_plot_opts *opts)
{
    eqnn_plot_opts o;
    memset(&o, 0, sizeof o);
    if (opts) o = *opts;
    if (o.width >= 0 && o.width < 160) o.width = o.width ? 160 : 560;
    if (o.height >= 0 && o.height < 120) o.height = o.height ? 120 : 400;
    return o;
}

EQNN_API eqnn_plot *eqnn_plot_make(eqnn_ctx *c, const eqnn_plot_opts *opts)
{
    if (eqnn_error(c)) return NULL;
    eqnn_plot_opts o = eqnn__plot_defaults(opts);
    if (o.width < 0 || o.height < 0 || !isfinite(o.x_max - o.x_min + o.y_max - o.y_min)) {
        eqnn_fail(c, "plot_make: x from %g to %g, y from %g to %g, on %d x %d points", o.x_min,
                  o.x_max, o.y_min, o.y_max, o.width, o.height);
        return NULL;
    }
    eqnn_plot *p = (eqnn_plot *)calloc(1, sizeof *p);
    if (!p) {
        eqnn_fail(c, "plot_make: no memory");
        return NULL;
    }
    p->ctx = c;
    p->o = o;
    snprintf(p->title, sizeof p->title, "%s", p->o.title ? p->o.title : "");
    snprintf(p->x_label, sizeof p->x_label, "%s", p->o.x_label ? p->o.x_label : "");
    snprintf(p->y_label, sizeof p->y_label, "%s", p->o.y_label ? p->o.y_label : "");
    return p;
}

EQNN_API void eqnn_plot_free(eqnn_plot *p)
{
    if (!p) return;
    for (int i = 0; i < p->count; i++) {
        free(p->series[i].x);
        free(p->series[i].y);
    }
    free(p->series);
    free(p);
}

/* Room for one more series, or NULL. */
static eqnn__plot_series *eqnn__plot_room(eqnn_plot *p)
{
    if (p->count == p->capacity) {
        int capacity = 2 * p->capacity + 8;
        void *series = realloc(p->series, (size_t)capacity * sizeof *p->series);
        if (!series) return NULL;
        p->series = (eqnn__plot_series *)series;
        p->capacity = capacity;
    }
    memset(&p->series[p->count], 0, sizeof *p->series);
    return &p->series[p->count];
}

/* Could it be a colour of SVG? It stands in an attribute, which a quote would end. */
static int eqnn__plot_colour_good(const char *s)
{
    size_t n = strlen(s);
    for (size_t i = 0; i < n; i++)
        if (!isalnum((unsigned char)s[i]) && !strchr("#(),.% -", s[i])) return 0;
    return n > 0 && n < sizeof ((eqnn__plot_series *)0)->colour / 2;
}

/* A space behind each comma, so that it is no decimal sign of any locale. */
static void eqnn__plot_colour_copy(char *to, const char *from)
{
    for (; *from; from++) {
        *to++ = *from;
        if (*from == ',') *to++ = ' ';
    }
    *to = 0;
}

/* Of the series that is next in the plot: once the palette has begun again, lines are dashed. */
static eqnn_series_opts eqnn__series_defaults(const eqnn_series_opts *opts, int next)
{
    eqnn_series_opts o;
    memset(&o, 0, sizeof o);
    if (opts) o = *opts;
    if (!o.colour && next >= EQNN__COLOURS) o.dashed = 1;
    if (!o.colour) o.colour = eqnn__plot_palette(next);
    if (o.size == 0) o.size = o.points ? 2.2 : 1.8;
    if (o.opacity == 0) o.opacity = 1;
    return o;
}

EQNN_API int eqnn_plot_add(eqnn_plot *p, const char *label, int n, const double *x, const double *y,
                           const eqnn_series_opts *opts)
{
    if (!p) return 0;
    eqnn_series_opts o = eqnn__series_defaults(opts, p->count);
    if (n < 0 || (n > 0 && (!x || !y))) {
        eqnn_fail(p->ctx, n < 0 ? "plot_add: %d points" : "plot_add: %d points, but x or y is NULL",
                  n);
        return 0;
    }
    if (!(o.size > 0 && o.size < 1e6) || !(o.opacity > 0 && o.opacity <= 1)) {
        eqnn_fail(p->ctx, "plot_add: size %g, opacity %g: positive, the opacity at most 1", o.size,
                  o.opacity);
        return 0;
    }
    if (!eqnn__plot_colour_good(o.colour)) {
        eqnn_fail(p->ctx, "plot_add: '%.40s' is no colour; write #rrggbb, a name or rgb(r,g,b)",
                  o.colour);
        return 0;
    }
    eqnn__plot_series *s = eqnn__plot_room(p);
    if (s) {
        s->x = (double *)malloc(((size_t)n + 1) * sizeof *x);
        s->y = (double *)malloc(((size_t)n + 1) * sizeof *y);
    }
    if (!s || !s->x || !s->y) {
        if (s) free(s->x);
        if (s) free(s->y);
        eqnn_fail(p->ctx, "plot_add: no memory for %d points", n);
        return 0;
    }
    if (n > 0) memcpy(s->x, x, (size_t)n * sizeof *x);
    if (n > 0) memcpy(s->y, y, (size_t)n * sizeof *y);
    s->n = n;
    s->points = o.points;
    s->dashed = o.dashed;
    s->size = o.size;
    s->opacity = o.opacity;
    snprintf(s->label, sizeof s->label, "%s", label ? label : "");
    eqnn__plot_colour_copy(s->colour, o.colour);
    p->count++;
    return 1;
}

/* The number in cell k of a line; 0 when there is none. */
static int eqnn__csv_cell(const char *line, int k, double *value)
{
    const char *end;
    for (; line && k > 0; k--)
        if ((line = strchr(line, ',')) != NULL) line++;
    if (!line) return 0;
    *value = eqnn__decimal(line, &end);
    return end != line && (!*end || strchr(",\r\n", *end)) && isfinite(*value);
}

/* Points [2 n]: x, y, x, y, ... of the rows wanted, in malloc's memory; NULL when there is none.
   *columns: of the widest line. */
static double *eqnn__csv_points(FILE *f, const char *name, int x, int y, int *n, int *columns)
{
    char line[1024];
    double *points = NULL, at[2];
    size_t length = name ? strlen(name) : 0;
    for (*columns = *n = 0; *n < 1 << 24 && fgets(line, sizeof line, f);) {
        int own = 1;
        for (const char *s = line; (s = strchr(s, ',')) != NULL; s++) own++;
        if (own > *columns) *columns = own;
        if (name && (strncmp(line, name, length) != 0 || line[length] != ',')) continue;
        if (!eqnn__csv_cell(line, x, &at[0]) || !eqnn__csv_cell(line, y, &at[1])) continue;
        if ((*n & (*n - 1)) == 0) { /* a power of two: full */
            size_t room = 2 * (size_t)(*n ? 2 * *n : 1);
            double *more = (double *)realloc(points, room * sizeof *points);
            if (!more) break;
            points = more;
        }
        memcpy(points + 2 * (size_t)(*n)++, at, sizeof at);
    }
    return points;
}

EQNN_API int eqnn_plot_csv(eqnn_plot *p, const char *path, const char *name, int x, int y,
                           const eqnn_series_opts *opts)
{
    int n = 0, wide = 0, most = x > y ? x : y;
    if (!p) return 0;
    if (!path || x < 0 || y < 0) {
        eqnn_fail(p->ctx, "plot_csv: '%.200s', columns %d and %d: needs a path and columns from 0",
                  path ? path : "NULL", x, y);
        return 0;
    }
    FILE *f = fopen(path, "rb");
    if (!f) {
        eqnn_fail(p->ctx, "cannot read '%s': %s", path, strerror(errno));
        return 0;
    }
    double *points = eqnn__csv_points(f, name, x, y, &n, &wide), *columns = NULL;
    fclose(f);
    if (wide > 0 && most >= wide)
        eqnn_fail(p->ctx, "plot_csv: '%.200s' has no column %d (from 0): its lines have %d", path,
                  most, wide);
    if (n > 0) columns = (double *)malloc(2 * (size_t)n * sizeof *columns);
    if (n > 0 && !columns) eqnn_fail(p->ctx, "plot_csv: no memory for %d points", n);
    for (int i = 0; columns && i < n; i++) {
        columns[i] = points[2 * i];
        columns[n + i] = points[2 * i + 1];
    }
    int done = columns && eqnn_plot_add(p, name, n, columns, columns + n, opts);
    free(columns);
    free(points);
    return done;
}

/* ---- axes ---- */

typedef struct eqnn__axis {
    double low, high;      /* of the panel; logarithms (base 10) of a logarithmic axis */
    int log, ticks;
    double tick[32];       /* as low and high                   */
    double minor[64];      /* thin lines between                */
    int minors, exponent;  /* linear: labels are in 10^exponent */
    int decimals;
} eqnn__axis;

/* Where a value stands on its axis, NaN when it has no place. Sizes are kept away from the ends of
   double, so that spans and steps neither overflow nor vanish. */
static double eqnn__axis_value(const eqnn__axis *a, double v)
{
    if (a->log) return v > 0 ? log10(v) : NAN;
    return fabs(v) > 1e300 ? NAN : fabs(v) < 1e-300 ? 0 : v;
}

/* What all series of p need on one axis (0: x, 1: y). */
static void eqnn__axis_range(eqnn__axis *a, const eqnn_plot *p, int which)
{
    a->low = INFINITY;
    a->high = -INFINITY;
    for (int k = 0; k < p->count; k++)
        for (int i = 0; i < p->series[k].n; i++) {
            double v = eqnn__axis_value(a, which ? p->series[k].y[i] : p->series[k].x[i]);
            if (!isfinite(v)) continue;
            if (v < a->low) a->low = v;
            if (v > a->high) a->high = v;
        }
    double least = which ? p->o.y_min : p->o.x_min, most = which ? p->o.y_max : p->o.x_max;
    if (!(a->low <= a->high)) a->low = 0, a->high = 1;
    double room = 0.04 * (a->high - a->low);
    if (room <= 1e-12 * fabs(a->high)) room = a->high != 0 && !a->log ? 0.05 * fabs(a->high) : 0.5;
    a->low -= room;
    a->high += room;
    if (least == most) return;
    least = eqnn__axis_value(a, least);
    most = eqnn__axis_value(a, most);
    if (isfinite(least)) a->low = least;
    if (isfinite(most) && most > a->low) a->high = most;
    if (a->high <= a->low) a->high = a->low + fabs(a->low) + 1; /* the least wanted is above all */
}

/* The step 1, 2 or 5 times a power of ten that cuts the span into at most about n pieces. */
static double eqnn__axis_step(double span, int n)
{
    double power = pow(10, floor(log10(span / n))), rest = span / n / power;
    return power * (rest <= 1.0001 ? 1 : rest <= 2.0001 ? 2 : rest <= 5.0001 ? 5 : 10);
}

static void eqnn__axis_linear(eqnn__axis *a, int most)
{
    double step = eqnn__axis_step(a->high - a->low, most), first = ceil(a->low / step - 1e-9);
    double size = fmax(fabs(a->low), fabs(a->high));
    for (int i = 0; i < 32 && (first + i) * step <= a->high + 1e-9 * step; i++)
        a->tick[a->ticks++] = (first + i) * step;
    int digits = (int)floor(log10(size) + 1e-9);
    a->exponent = digits < -2 || digits > 4 ? digits : 0;
    double shown = log10(step) - a->exponent;
    a->decimals = shown < -1e-9 ? (int)ceil(-shown - 1e-9) : 0;
}

/* Decades, at most about `most` of them; between few of them thin lines at 2, 3, ..., 9, which get
   labels (2 and 5 only) when there are fewer than two decades to show. */
static void eqnn__axis_log(eqnn__axis *a, int most)
{
    int first = (int)floor(a->low), last = (int)ceil(a->high), whole = 0;
    int stride = 1 + (last - first) / (most + 1);
    for (int k = first; k <= last; k++) whole += k >= a->low && k <= a->high;
    for (int k = first; k <= last; k++)
        for (int m = 1; m <= 9; m++) {
            double v = k + log10((double)m);
            int label = m == 1 ? k % stride == 0 : whole < 2 && (m == 2 || m == 5);
            if (v < a->low || v > a->high) continue;
            if (label && a->ticks < 32) a->tick[a->ticks++] = v;
            else if (last - first <= 6 && a->minors < 64) a->minor[a->minors++] = v;
        }
}

static void eqnn__axis_make(eqnn__axis *a, int most)
{
    if (a->log) eqnn__axis_log(a, most);
    else eqnn__axis_linear(a, most);
}

/* ---- drawing ---- */

typedef struct eqnn__svg_area {
    eqnn__blob *f;
    const eqnn_plot *p;
    double left, top, width, height;  /* of the area inside the axes */
    eqnn__axis x, y;
} eqnn__svg_area;

/* Far outside the panel it does not matter where, but viewers have no numbers of any size. */
static double eqnn__svg_share(const eqnn__axis *a, double v)
{
    double share = (v - a->low) / (a->high - a->low);
    return share < -1e3 ? -1e3 : share > 1e3 ? 1e3 : share;
}

static double eqnn__svg_at_x(const eqnn__svg_area *q, double v)
{
    return q->left + q->width * eqnn__svg_share(&q->x, v);
}

static double eqnn__svg_at_y(const eqnn__svg_area *q, double v)
{
    return q->top + q->height * (1 - eqnn__svg_share(&q->y, v));
}

/* Bytes of the character at s, 0 when it is none of XML: not UTF-8, or U+FFFE and U+FFFF. */
static int eqnn__svg_character(const char *s)
{
    int n = eqnn__utf8((const unsigned char *)s, 4); /* the text's own end is part of none */
    return n == 3 && memcmp(s, "\xef\xbf", 2) == 0 && (unsigned char)s[2] >= 0xbe ? 0 : n;
}

/* Text as XML; what is no character is shown as U+FFFD. */
static void eqnn__svg_escape(eqnn__blob *f, const char *s)
{
    for (int n; *s; s += n ? n : 1) {
        n = eqnn__svg_character(s);
        if (n == 0) eqnn__blob_print(f, "&#65533;");
        else if (*s == '&') eqnn__blob_print(f, "&amp;");
        else if (*s == '<') eqnn__blob_print(f, "&lt;");
        else if (*s == '>') eqnn__blob_print(f, "&gt;");
        else if (*s == '"') eqnn__blob_print(f, "&quot;");
        else if ((unsigned char)*s >= 32) eqnn__blob_put(f, s, (size_t)n);
    }
}

static void eqnn__svg_text(eqnn__blob *f, double x, double y, const char *style, const char *text)
{
    eqnn__blob_print(f, "<text x=\"%.1f\" y=\"%.1f\" %s>", x, y, style);
    eqnn__svg_escape(f, text);
    eqnn__blob_print(f, "</text>\n");
}

static void eqnn__svg_line(eqnn__blob *f, double x1, double y1, double x2, double y2,
                           const char *colour)
{
    eqnn__blob_print(f, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"%s\"/>\n",
                     x1, y1, x2, y2, colour);
}

/* The label of a tick: a number, or a power of ten with its exponent raised. */
static void eqnn__svg_tick(eqnn__blob *f, const eqnn__axis *a, double x, double y,
                           const char *anchor, double v)
{
    eqnn__blob_print(f, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\" class=\"t\">", x, y,
                     anchor);
    if (a->log) {
        int power = (int)floor(v + 1e-9), digit = (int)floor(pow(10, v - power) + 0.5);
        if (power >= -1 && power <= 2) {
            eqnn__blob_print(f, "%g", digit * pow(10, power));
        } else {
            if (digit > 1) eqnn__blob_print(f, "%d&#183;", digit);
            eqnn__blob_print(f, "10<tspan dy=\"-5\" font-size=\"9\">%s%d</tspan>",
                             power < 0 ? "&#8722;" : "", abs(power));
        }
    } else {
        double shown = v / pow(10, a->exponent);
        if (fabs(shown) < 0.5 * pow(10, -a->decimals)) shown = 0;
        eqnn__blob_print(f, "%s%.*f", shown < 0 ? "&#8722;" : "", a->decimals, fabs(shown));
    }
    eqnn__blob_print(f, "</text>\n");
}

/* The grid, labels of ticks, and the frame's two axes. */
static void eqnn__svg_axes(const eqnn__svg_area *q)
{
    eqnn__blob *f = q->f;
    double right = q->left + q->width, bottom = q->top + q->height;
    for (int i = 0; i < q->x.minors; i++) {
        double x = eqnn__svg_at_x(q, q->x.minor[i]);
        eqnn__svg_line(f, x, q->top, x, bottom, "#f1f1f1");
    }
    for (int i = 0; i < q->y.minors; i++) {
        double y = eqnn__svg_at_y(q, q->y.minor[i]);
        eqnn__svg_line(f, q->left, y, right, y, "#f1f1f1");
    }
    for (int i = 0; i < q->x.ticks; i++) {
        double x = eqnn__svg_at_x(q, q->x.tick[i]);
        eqnn__svg_line(f, x, q->top, x, bottom, "#dcdcdc");
        eqnn__svg_tick(f, &q->x, x, bottom + 17, "middle", q->x.tick[i]);
    }
    for (int i = 0; i < q->y.ticks; i++) {
        double y = eqnn__svg_at_y(q, q->y.tick[i]);
        eqnn__svg_line(f, q->left, y, right, y, "#dcdcdc");
        eqnn__svg_tick(f, &q->y, q->left - 7, y + 4, "end", q->y.tick[i]);
    }
    eqnn__svg_line(f, q->left, bottom, right, bottom, "#555555");
    eqnn__svg_line(f, q->left, q->top, q->left, bottom, "#555555");
}

/* "x 10^-6" beside an axis whose labels leave it out. */
static void eqnn__svg_factor(eqnn__blob *f, const eqnn__axis *a, double x, double y,
                             const char *anchor)
{
    if (a->log || a->exponent == 0) return;
    eqnn__blob_print(f, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\" class=\"t\">&#215;10"
                     "<tspan dy=\"-5\" font-size=\"9\">%s%d</tspan></text>\n",
                     x, y, anchor, a->exponent < 0 ? "&#8722;" : "", abs(a->exponent));
}

static void eqnn__svg_titles(const eqnn__svg_area *q)
{
    eqnn__blob *f = q->f;
    double middle = q->left + q->width / 2, bottom = q->top + q->height, y = q->top + q->height / 2;
    char style[96];
    eqnn__svg_text(f, q->left, q->top - 16, "class=\"h\"", q->p->title);
    eqnn__svg_text(f, middle, bottom + 38, "text-anchor=\"middle\"", q->p->x_label);
    snprintf(style, sizeof style, "text-anchor=\"middle\" transform=\"rotate(-90 %.1f %.1f)\"",
             q->left - 60, y);
    eqnn__svg_text(f, q->left - 60, y, style, q->p->y_label);
    eqnn__svg_factor(f, &q->x, q->left + q->width, bottom + 34, "end");
    eqnn__svg_factor(f, &q->y, q->left - 7, q->top - 6, "end");
}

static void eqnn__svg_dots(const eqnn__svg_area *q, const eqnn__plot_series *s)
{
    eqnn__blob_print(q->f, "<g fill=\"%s\" fill-opacity=\"%.2f\">\n", s->colour, s->opacity);
    for (int i = 0; i < s->n; i++) {
        double x = eqnn__axis_value(&q->x, s->x[i]), y = eqnn__axis_value(&q->y, s->y[i]);
        if (isfinite(x) && isfinite(y))
            eqnn__blob_print(q->f, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"%.1f\"/>\n",
                             eqnn__svg_at_x(q, x), eqnn__svg_at_y(q, y), s->size);
    }
    eqnn__blob_print(q->f, "</g>\n");
}

/* A path with a gap wherever a point has no place. */
static void eqnn__svg_path(const eqnn__svg_area *q, const eqnn__plot_series *s)
{
    int pen = 0;
    eqnn__blob_print(q->f, "<path fill=\"none\" stroke=\"%s\" stroke-width=\"%.1f\" "
                     "stroke-opacity=\"%.2f\" stroke-linejoin=\"round\" stroke-linecap=\"round\""
                     "%s d=\"",
                     s->colour, s->size, s->opacity, s->dashed ? " stroke-dasharray=\"6 5\"" : "");
    for (int i = 0; i < s->n; i++) {
        double x = eqnn__axis_value(&q->x, s->x[i]), y = eqnn__axis_value(&q->y, s->y[i]);
        int good = isfinite(x) && isfinite(y);
        if (good)
            eqnn__blob_print(q->f, "%s%.1f %.1f", pen ? "L" : "M", eqnn__svg_at_x(q, x),
                             eqnn__svg_at_y(q, y));
        pen = good;
    }
    eqnn__blob_print(q->f, "\"/>\n");
}

/* How much of a series, point by point and a few places between two points of a line, lies in the
   box [x, y, width, height] of a legend. */
static int eqnn__svg_crowd(const eqnn__svg_area *q, const eqnn__plot_series *s, const double *box)
{
    int crowd = 0, between = s->points || s->n < 2 ? 1 : 1 + 100 / s->n;
    double u0 = NAN, v0 = NAN;
    for (int i = 0; i < s->n; i++) {
        double u = eqnn__svg_at_x(q, eqnn__axis_value(&q->x, s->x[i]));
        double v = eqnn__svg_at_y(q, eqnn__axis_value(&q->y, s->y[i]));
        for (int k = 0; k < (i ? between : 1); k++) {
            double t = (double)k / between;
            double a = k ? u + t * (u0 - u) : u, b = k ? v + t * (v0 - v) : v;
            crowd += a > box[0] && a < box[0] + box[2] && b > box[1] && b < box[1] + box[3];
        }
        u0 = u;
        v0 = v;
    }
    return crowd;
}

static void eqnn__svg_legend_row(eqnn__blob *f, const eqnn__plot_series *s, double x, double y)
{
    if (s->points)
        eqnn__blob_print(f, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"4\" fill=\"%s\"/>\n", x + 11, y,
                         s->colour);
    else
        eqnn__blob_print(f, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"%s\" "
                         "stroke-width=\"2.2\"%s/>\n",
                         x, y, x + 22, y, s->colour, s->dashed ? " stroke-dasharray=\"5 4\"" : "");
    eqnn__svg_text(f, x + 29, y + 4, "class=\"t\"", s->label);
}

/* The box [x, y, width, height] where a legend covers the fewest points, and how many: right and
   left before the middle, top and bottom before what is between them. */
static int eqnn__svg_legend_box(const eqnn__svg_area *q, double *box)
{
    const double share[2][3] = { { 1, 0, 0.5 }, { 0, 1, 0.5 } }; /* of the free width and height */
    int rows = 0, longest = 0, least = -1;
    double place[4];
    for (int k = 0; k < q->p->count; k++) {
        int n = (int)strlen(q->p->series[k].label);
        rows += n > 0;
        if (n > longest) longest = n;
    }
    place[2] = box[2] = rows ? 46 + 6.6 * longest : 0;
    place[3] = box[3] = rows ? 10 + 18.0 * rows : 0;
    for (int i = 0; i < 9 && rows; i++) {
        int crowd = 0, across = i < 6 ? i % 2 : 2, down = i < 6 ? i / 2 : i - 6;
        place[0] = q->left + 8 + share[0][across] * (q->width - 16 - box[2]);
        place[1] = q->top + 8 + share[1][down] * (q->height - 16 - box[3]);
        for (int k = 0; k < q->p->count; k++) crowd += eqnn__svg_crowd(q, &q->p->series[k], place);
        if (least >= 0 && crowd >= least) continue;
        least = crowd;
        box[0] = place[0];
        box[1] = place[1];
    }
    return least;
}

static void eqnn__svg_legend(const eqnn__svg_area *q, const double *box)
{
    eqnn__blob_print(q->f, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" rx=\"3\" "
                     "fill=\"#ffffff\" fill-opacity=\"0.88\" stroke=\"#dcdcdc\"/>\n",
                     box[0], box[1], box[2], box[3]);
    for (int k = 0, row = 0; k < q->p->count; k++)
        if (q->p->series[k].label[0])
            eqnn__svg_legend_row(q->f, &q->p->series[k], box[0] + 9, box[1] + 14 + 18.0 * row++);
}

/* Widens one axis so that a unit is as long on both. */
static void eqnn__svg_equal(eqnn__svg_area *q)
{
    double per_x = (q->x.high - q->x.low) / q->width, per_y = (q->y.high - q->y.low) / q->height;
    eqnn__axis *a = per_x < per_y ? &q->x : &q->y;
    double half = per_x < per_y ? per_y * q->width / 2 : per_x * q->height / 2;
    double middle = (a->low + a->high) / 2;
    a->low = middle - half;
    a->high = middle + half;
}

static void eqnn__svg_scale(eqnn__svg_area *q)
{
    eqnn__axis_range(&q->x, q->p, 0);
    eqnn__axis_range(&q->y, q->p, 1);
    if (q->p->o.equal && q->x.log == q->y.log) eqnn__svg_equal(q);
}

/* A legend that would cover something stands beside the axes, if these do not get too narrow. */
static void eqnn__svg_legend_place(eqnn__svg_area *q, double *box)
{
    int crowd = eqnn__svg_legend_box(q, box);
    if (crowd <= 0 || box[2] > 0.4 * q->width) return;
    q->width -= box[2] + 10;
    box[0] = q->left + q->width + 10;
    box[1] = q->top;
    eqnn__svg_scale(q);
}

static void eqnn__svg_panel(eqnn__blob *f, const eqnn_plot *p, double left, double top,
                            int number)
{
    eqnn__svg_area q;
    double legend[4] = { 0, 0, 0, 0 };
    memset(&q, 0, sizeof q);
    q.f = f;
    q.p = p;
    q.left = left + 78;
    q.top = top + 42;
    q.width = p->o.width - 78 - 22;
    q.height = p->o.height - 42 - 54;
    q.x.log = p->o.log_x;
    q.y.log = p->o.log_y;
    eqnn__svg_scale(&q);
    eqnn__svg_legend_place(&q, legend);
    eqnn__axis_make(&q.x, (int)(q.width / 70) + 1);
    eqnn__axis_make(&q.y, (int)(q.height / 50) + 1);
    eqnn__svg_axes(&q);
    eqnn__svg_titles(&q);
    eqnn__blob_print(f, "<clipPath id=\"c%d\"><rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" "
                     "height=\"%.1f\"/></clipPath>\n<g clip-path=\"url(#c%d)\">\n",
                     number, q.left, q.top, q.width, q.height, number);
    for (int k = 0; k < p->count; k++) {
        if (p->series[k].points) eqnn__svg_dots(&q, &p->series[k]);
        else eqnn__svg_path(&q, &p->series[k]);
    }
    eqnn__blob_print(f, "</g>\n");
    if (legend[2] > 0) eqnn__svg_legend(&q, legend);
}

/* Width of the columns and height of the rows are those of the largest panel. */
static void eqnn__svg_picture(eqnn__blob *f, eqnn_plot *const *plots, int n, int columns)
{
    int width = 0, height = 0, rows = (n + columns - 1) / columns;
    for (int i = 0; i < n; i++) {
        if (plots[i]->o.width > width) width = plots[i]->o.width;
        if (plots[i]->o.height > height) height = plots[i]->o.height;
    }
    eqnn__blob_print(f, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" "
                     "viewBox=\"0 0 %d %d\" font-family=\"Helvetica, Arial, 'Liberation Sans', "
                     "'DejaVu Sans', sans-serif\" font-size=\"13\" fill=\"#222222\">\n"
                     "<style>.t{font-size:12px;fill:#444444}"
                     ".h{font-size:15px;font-weight:bold}</style>\n"
                     "<rect width=\"100%%\" height=\"100%%\" fill=\"#ffffff\"/>\n",
                     width * columns, height * rows, width * columns, height * rows);
    for (int i = 0; i < n; i++)
        eqnn__svg_panel(f, plots[i], width * (i % columns), height * (i / columns), i);
    eqnn__blob_print(f, "</svg>\n");
}

EQNN_API int eqnn_plots_save(eqnn_ctx *c, const char *path, eqnn_plot *const *plots, int n,
                             int columns)
{
    eqnn__blob b = { NULL, 0, 0, 0 };
    if (eqnn_error(c)) return 0;
    int missing = !plots;
    for (int i = 0; plots && i < n; i++) missing |= !plots[i];
    if (missing || n < 1 || columns < 1) {
        eqnn_fail(c, "plots_save: %d plots in %d columns%s", n, columns,
                  missing ? ", one is NULL" : "");
        return 0;
    }
    eqnn__svg_picture(&b, plots, n, columns < n ? columns : n);
    return eqnn__blob_save(c, path, &b);
}

EQNN_API int eqnn_plot_save(const eqnn_plot *p, const char *path)
{
    eqnn_plot *one = (eqnn_plot *)(uintptr_t)p; /* read only all the same */
    return p ? eqnn_plots_save(p->ctx, path, &one, 1, 1) : 0;
}

/* Five colours along viridis (van der Walt and Smith 2015) with straight lines between; without its
   pale end. */
EQNN_API void eqnn_plot_colour(double t, char *text)
{
    static const double stop[5][3] = {
        { 68, 1, 84 }, { 62, 74, 137 }, { 38, 130, 142 }, { 53, 183, 121 }, { 218, 200, 30 }
    };
    double s = 4 * (t > 0 ? t < 1 ? t : 1 : 0);
    int k = s < 4 ? (int)s : 3, v[3];
    for (int m = 0; m < 3; m++)
        v[m] = (int)(stop[k][m] + (s - k) * (stop[k + 1][m] - stop[k][m]) + 0.5) & 255;
    snprintf(text, 8, "#%02x%02x%02x", (unsigned)v[0], (unsigned)v[1], (unsigned)v[2]);
}

/* The chain in one frame: a line along it and a dot for each bead. */
static void eqnn__plot_chain(eqnn_plot *p, const char *label, int beads, const double *frame,
                             const char *colour, double *x, double *y)
{
    eqnn_series_opts o;
    memset(&o, 0, sizeof o);
    o.colour = colour;
    for (int i = 0; i < beads; i++) {
        x[i] = frame[3 * i];
        y[i] = frame[3 * i + 1];
    }
    eqnn_plot_add(p, label, beads, x, y, &o);
    o.points = 1;
    o.size = 3.4;
    eqnn_plot_add(p, NULL, beads, x, y, &o);
}

/* One panel; x and y have room for the longer of frames and beads. */
static void eqnn__plot_run(eqnn_plot *p, int frames, int beads, const double *run, double *x,
                           double *y)
{
    char colour[8];
    eqnn_series_opts o;
    memset(&o, 0, sizeof o);
    o.size = 1.3;
    o.opacity = 0.9;
    o.colour = colour;
    for (int b = 0; b < beads; b++) {
        for (int t = 0; t < frames; t++) {
            const double *at = run + 3 * ((size_t)t * (size_t)beads + (size_t)b);
            x[t] = at[0];
            y[t] = at[1];
        }
        eqnn_plot_colour(beads > 1 ? (double)b / (beads - 1) : 0, colour);
        eqnn_plot_add(p, NULL, frames, x, y, &o);
    }
    size_t last = 3 * (size_t)(frames - 1) * (size_t)beads;
    eqnn__plot_chain(p, "first frame", beads, run, "#9a9a9a", x, y);
    eqnn__plot_chain(p, "last frame", beads, run + last, "#222222", x, y);
}

/* Both panels show the range that both runs need. */
static void eqnn__plot_share(eqnn_plot *a, eqnn_plot *b)
{
    eqnn_plot_opts *o = &a->o;
    eqnn__axis x[2], y[2];
    memset(x, 0, sizeof x);
    memset(y, 0, sizeof y);
    for (int i = 0; i < 2; i++) {
        eqnn__axis_range(&x[i], i ? b : a, 0);
        eqnn__axis_range(&y[i], i ? b : a, 1);
    }
    o->x_min = fmin(x[0].low, x[1].low);
    o->x_max = fmax(x[0].high, x[1].high);
    o->y_min = fmin(y[0].low, y[1].low);
    o->y_max = fmax(y[0].high, y[1].high);
    b->o.x_min = o->x_min;
    b->o.x_max = o->x_max;
    b->o.y_min = o->y_min;
    b->o.y_max = o->y_max;
}

EQNN_API int eqnn_plot_trajectories(eqnn_ctx *c, const char *path, int frames, int beads,
                                    const double *left, const double *right,
                                    const char *left_title, const char *right_title)
{
    eqnn_plot_opts o;
    eqnn_plot *p[2];
    int good = 0;
    if (eqnn_error(c)) return 0;
    if (frames < 1 || beads < 1 || !left || !right) {
        eqnn_fail(c, "plot_trajectories: %d frames of %d beads", frames, beads);
        return 0;
    }
    memset(&o, 0, sizeof o);
    o.equal = 1;
    o.x_label = "x";
    o.y_label = "y";
    o.title = left_title;
    p[0] = eqnn_plot_make(c, &o);
    o.title = right_title;
    p[1] = eqnn_plot_make(c, &o);
    double *work = (double *)malloc(2 * (size_t)(frames > beads ? frames : beads) * sizeof *work);
    if (!work) eqnn_fail(c, "plot_trajectories: no memory");
    if (work && p[0] && p[1]) {
        double *y = work + (frames > beads ? frames : beads);
        eqnn__plot_run(p[0], frames, beads, left, work, y);
        eqnn__plot_run(p[1], frames, beads, right, work, y);
        eqnn__plot_share(p[0], p[1]);
        good = eqnn_plots_save(c, path, p, 2, 2);
    }
    free(work);
    eqnn_plot_free(p[0]);
    eqnn_plot_free(p[1]);
    return good;
}

#endif /* EQNN_IMPLEMENTATION */

/* ------------------------------------------------------------------------------------------------
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

   CHANGES       0.1   first version: sections 1 to 7
   ---------------------------------------------------------------------------------------------- */
