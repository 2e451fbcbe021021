/* molecules.h - what the tests of EquiformerV2 and eSCN share: two small molecules, and whether
   energies and forces turn with them */
#ifndef MOLECULES_H
#define MOLECULES_H
#include "test.h"

enum { ATOMS = 7, EDGES = 18 };

/* Two molecules, of 4 and 3 atoms, all edges within each; species of a range of 5. */
static const eqnn_graph *two_molecules_graph(eqnn_ctx *c)
{
    static const int source[EDGES] = { 0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 5, 5, 6, 6 };
    static const int target[EDGES] = { 1, 2, 3, 0, 2, 3, 0, 1, 3, 0, 1, 2, 5, 6, 4, 6, 4, 5 };
    static const int example[ATOMS] = { 0, 0, 0, 0, 1, 1, 1 };
    eqnn_graph_opts o;
    memset(&o, 0, sizeof o);
    o.targets = ATOMS;
    o.example = example;
    return eqnn_graph_make(c, EDGES, source, target, &o);
}

static eqnn_ints *two_molecules_species(eqnn_ctx *c)
{
    static const int kind[ATOMS] = { 0, 3, 1, 1, 2, 0, 3 };
    return eqnn_ints_make(c, ATOMS, kind, 5, 0);
}

/* The second of them, its atoms in another order, and which of the seven these are */
static const eqnn_graph *second_molecule_graph(eqnn_ctx *c)
{
    static const int source[6] = { 0, 0, 1, 1, 2, 2 }, target[6] = { 1, 2, 0, 2, 0, 1 };
    eqnn_graph_opts o;
    memset(&o, 0, sizeof o);
    o.targets = 3;
    return eqnn_graph_make(c, 6, source, target, &o);
}

static eqnn_ints *second_molecule_species(eqnn_ctx *c)
{
    return eqnn_ints_make(c, 3, (const int[]){ 3, 2, 0 }, 5, 0);
}

static eqnn_ints *second_molecule_atoms(eqnn_ctx *c)
{
    return eqnn_ints_make(c, 3, (const int[]){ 6, 4, 5 }, ATOMS, 0);
}

/* max |a - b| / max |b| */
static double relative(eqnn_tensor *a, eqnn_tensor *b)
{
    double worst = 0, size = 0;
    for (int i = 0; i < eqnn_rows(b); i++)
        for (int k = 0; k < eqnn_cols(b); k++) {
            worst = fmax(worst, fabs(eqnn_at(a, i, k) - eqnn_at(b, i, k)));
            size = fmax(size, fabs(eqnn_at(b, i, k)));
        }
    return a && b && size > 0 ? worst / size : INFINITY;
}

static eqnn_tensor *turned(eqnn_tensor *x, const double R[9])
{
    return eqnn_matmul_t(x, eqnn_from_double(eqnn_context(x), 3, 3, R), 0, 1);
}

/* Largest relative change of energies and direct forces when the world turns and moves; *forces is
   the option of the model that says where they go. */
static double molecules_error(eqnn_function energy, void *model, eqnn_tensor ***forces,
                              eqnn_tensor *pos)
{
    eqnn_ctx *c = eqnn_context(pos);
    double worst = 0;
    for (int k = 0; k < 3; k++) {
        double R[9];
        eqnn_tensor *f = NULL, *f2 = NULL;
        eqnn_rotation_random(c, eqnn_format(c, "R%d", k), 0, R);
        *forces = &f;
        eqnn_tensor *e = energy(&pos, 1, model), *moved = eqnn_shift(turned(pos, R), 0.25);
        *forces = &f2;
        eqnn_tensor *e2 = energy(&moved, 1, model);
        worst = fmax(worst, relative(e2, e));
        worst = fmax(worst, relative(eqnn_as(f2, NULL), turned(eqnn_as(f, NULL), R)));
    }
    *forces = NULL;
    test_note("symmetry error %.1e", worst);
    return worst;
}

#endif
