/* protein.c - eqnn_data.h: PDB files, backbone arrays, generated backbones, RMSD */
#include "test.h"
#include "../eqnn_data.h"

static const double degree = 0.017453292519943295;

static double distance(const double *a, const double *b)
{
    double sum = 0;
    for (int k = 0; k < 3; k++) sum += (a[k] - b[k]) * (a[k] - b[k]);
    return sqrt(sum);
}

/* Atom k (N CA C O) of a residue. */
static const double *atom(const eqnn_proteins *m, int residue, int k)
{
    return m->pos + 12 * (size_t)residue + 3 * k;
}

/* --- PDB files --- */

static char text[20000];
static int text_length;

/* A line of a file: record, name, location, residue, chain, number with insertion, x. */
static void line(const char *record, const char *name, char letter, const char *residue, char chain,
                 const char *number, double x, double occupancy)
{
    text_length += snprintf(text + text_length, sizeof text - (size_t)text_length,
                            "%-6s%5d %-4s%c%3s %c%5s   %8.3f%8.3f%8.3f%6.2f%6.2f          \n",
                            record, 1, name, letter, residue, chain, number, x, 2.0, -3.5,
                            occupancy, 10.0);
}

static void plain_line(const char *what)
{
    text_length += snprintf(text + text_length, sizeof text - (size_t)text_length, "%s\n", what);
}

static void residue(const char *record, const char *name, char chain, const char *number, double x)
{
    line(record, " N  ", ' ', name, chain, number, x, 1);
    line(record, " CA ", ' ', name, chain, number, x + .1, 1);
    line(record, " C  ", ' ', name, chain, number, x + .2, 1);
    line(record, " O  ", ' ', name, chain, number, x + .3, 1);
    line(record, " CB ", ' ', name, chain, number, x + .4, 1);
}

static eqnn_proteins *parsed(eqnn_ctx *c)
{
    eqnn_proteins *m = eqnn_pdb_parse(c, text, (size_t)text_length);
    text_length = 0;
    return m;
}

TEST(pdb_chains_and_columns)
{
    eqnn_ctx *c = test_context();
    plain_line("HEADER    PLANT PROTEIN                           30-APR-81   1CRN              ");
    plain_line("REMARK   2 ATOM   not an atom");
    residue("ATOM", "ALA", 'A', "  -1 ", -10);
    residue("ATOM", "TRP", 'A', "   2 ", -999.125);
    residue("HETATM", "MSE", 'A', "   3 ", 5); /* a residue of the chain */
    line("HETATM", "CA  ", ' ', " CA", 'A', "  90 ", 1, 1); /* calcium */
    line("HETATM", " O  ", ' ', "HOH", 'A', "  91 ", 1, 1);
    plain_line("TER     328      ASN A  46");
    residue("HETATM", "ALA", 'A', "  95 ", 7); /* a ligand: behind its chain's end */
    residue("ATOM", "GLY", 'B', "   1 ", 1);
    residue("ATOM", "XYZ", 'C', "   1 ", 1);
    plain_line("END");
    residue("ATOM", "GLY", 'D', "   1 ", 1);
    eqnn_proteins *m = parsed(c);
    CHECK(m && m->chains == 3 && m->residues == 5);
    if (!m) return;
    CHECK(m->first[1] == 3 && m->first[2] == 4 && m->first[3] == 5);
    CHECK_TEXT(m->name[0], "1CRN_A");
    CHECK_TEXT(m->name[2], "1CRN_C");
    CHECK(m->kind[0] == 0 && m->kind[1] == 18 && m->kind[2] == 10 && m->kind[3] == 5);
    CHECK(m->kind[4] == 20 && m->number[0] == -1 && m->number[1] == 2);
    CHECK(atom(m, 1, 0)[0] == -999.125 && atom(m, 1, 1)[1] == 2 && atom(m, 4, 3)[2] == -3.5);
    CHECK_NEAR(atom(m, 0, 3)[0], -9.7, 1e-15);
    CHECK(m->hetero == 7 && m->alternates == 0 && m->incomplete == 0 && m->broken == 0);
    CHECK(m->models == 0);
    eqnn_proteins_free(m);
}

/* Alternate locations, insertion codes, missing atoms. */
TEST(pdb_residues)
{
    eqnn_ctx *c = test_context();
    line("ATOM", " N  ", ' ', "SER", 'A', "   1 ", 1, 1);
    line("ATOM", " CA ", 'A', "SER", 'A', "   1 ", 2, .3);
    line("ATOM", " CA ", 'B', "SER", 'A', "   1 ", 3, .7);
    line("ATOM", " C  ", 'A', "SER", 'A', "   1 ", 4, .3);
    line("ATOM", " C  ", 'B', "SER", 'A', "   1 ", 5, .7);
    line("ATOM", " O  ", 'A', "SER", 'A', "   1 ", 6, .3); /* only there */
    residue("ATOM", "GLY", 'A', "   1A", 10);               /* inserted: another residue */
    residue("ATOM", "GLY", 'A', "   1B", 20);
    line("ATOM", " CA ", ' ', "GLY", 'A', "   2 ", 1, 1); /* only an alpha carbon */
    line("ATOM", " N  ", 'A', "ILE", 'A', "   3 ", 1, .5); /* two kinds in one place, half each */
    line("ATOM", " N  ", 'B', "VAL", 'A', "   3 ", 2, .5);
    line("ATOM", " CA ", 'A', "ILE", 'A', "   3 ", 1, .5);
    line("ATOM", " CA ", 'B', "VAL", 'A', "   3 ", 2, .5);
    line("ATOM", " C  ", 'A', "ILE", 'A', "   3 ", 1, .5);
    line("ATOM", " C  ", 'B', "VAL", 'A', "   3 ", 2, .5);
    eqnn_proteins *m = parsed(c);
    CHECK(m && m->chains == 1 && m->residues == 4);
    if (!m) return;
    CHECK_TEXT(m->name[0], "A");
    CHECK(atom(m, 0, 0)[0] == 1 && atom(m, 0, 1)[0] == 3 && atom(m, 0, 2)[0] == 5);
    CHECK(atom(m, 0, 3)[0] == 6);
    CHECK(atom(m, 1, 0)[0] == 10 && atom(m, 2, 0)[0] == 20 && m->number[2] == 1);
    CHECK(m->kind[3] == 7 && atom(m, 3, 1)[0] == 1); /* of equals the first */
    CHECK(isnan(atom(m, 3, 3)[0]));
    CHECK(m->alternates == 5 && m->incomplete == 1);
    eqnn_proteins_free(m);
}

/* Several models, lines that are cut off or hold no numbers, ends of lines, long lines. */
TEST(pdb_models_and_damage)
{
    eqnn_ctx *c = test_context();
    for (int k = 0; k < 3; k++) {
        char model[40];
        snprintf(model, sizeof model, "MODEL     %4d", k + 1);
        plain_line(model);
        residue("ATOM", "ALA", ' ', "   1 ", k);
        residue("ATOM", "ALA", ' ', "   2 ", k + 1);
        plain_line("ENDMDL");
    }
    eqnn_proteins *m = parsed(c);
    CHECK(m && m->residues == 2 && m->models == 2 && atom(m, 1, 0)[0] == 1);
    CHECK_TEXT(m ? m->name[0] : "x", "");
    eqnn_proteins_free(m);

    residue("ATOM", "ALA", 'A', "   1 ", 1);
    residue("ATOM", "LEU", 'A', "   2 ", 2);
    int whole = text_length;
    for (int cut = 0; cut < whole; cut += 7) { /* cut off anywhere: what is whole is read */
        m = eqnn_pdb_parse(c, text, (size_t)cut);
        int lines = cut / (whole / 10);
        if (lines >= 3) {
            CHECK(m && m->residues == 1 + (lines >= 8 || (lines == 7 && cut % (whole / 10) >= 54)));
            CHECK(m && m->incomplete <= 1 && m->broken <= 1);
        } else if (!m) {
            CHECK_ERROR(c, "no residue with N, CA and C");
        }
        eqnn_proteins_free(m);
    }
    text[whole / 10 * 5 + 34] = 'x'; /* the second residue's N has no number */
    residue("ATOM", "LEU", 'A', "   3 ", 3);
    plain_line("ATOM      1  N   ALA A   4    \r");
    m = parsed(c);
    CHECK(m && m->residues == 2 && m->broken == 2 && m->incomplete == 1 && m->number[1] == 3);
    eqnn_proteins_free(m);

    for (int k = 0; k < 3; k++) /* no occupancy, Windows' ends of lines, nan */
        plain_line(k == 0 ? "ATOM      1  N   ALA A   4       1.000   2.000   3.000\r"
                   : k == 1 ? "ATOM      1  CA  ALA A   4       1.000   2.000     nan\r"
                            : "ATOM      1  CA  ALA A   4       1.500   2.000   3.000\r");
    plain_line("ATOM      1  C   ALA A   4           1       2       3");
    m = parsed(c);
    CHECK(m && m->residues == 1 && m->broken == 1 && atom(m, 0, 1)[0] == 1.5);
    CHECK(m && atom(m, 0, 2)[2] == 3);
    eqnn_proteins_free(m);
    CHECK(!eqnn_pdb_parse(c, "", 0));
    CHECK_ERROR(c, "no residue");
    CHECK(!eqnn_pdb_parse(c, NULL, 5));
    CHECK_ERROR(c, "no bytes");
    CHECK(!eqnn_protein_open(c, "/no/such/file"));
    CHECK_ERROR(c, "cannot open");
}

TEST(joined)
{
    eqnn_ctx *c = test_context();
    eqnn_proteins *a = eqnn_backbones(c, NULL, 0, 2), *b = eqnn_backbones(c, NULL, 2, 1);
    eqnn_proteins *one = eqnn_proteins_join(c, NULL, a), *all = eqnn_proteins_join(c, one, b);
    eqnn_proteins *same = eqnn_backbones(c, NULL, 0, 3);
    CHECK(all && same && all->chains == 3 && all->residues == same->residues);
    if (all && same) {
        size_t r = (size_t)all->residues;
        CHECK(!memcmp(all->first, same->first, 4 * sizeof(int)));
        CHECK(!memcmp(all->pos, same->pos, 12 * r * sizeof(double)));
        CHECK(!memcmp(all->kind, same->kind, r * sizeof(int)));
        CHECK_TEXT(all->name[2], "2");
    }
    eqnn_proteins_free(a);
    eqnn_proteins_free(b);
    eqnn_proteins_free(one);
    eqnn_proteins_free(all);
    eqnn_proteins_free(same);
}

/* --- real files, where they are --- */

static const char *data_file(const char *name)
{
    static const char *const folders[] = { "shared/data", "../shared/data", "../../shared/data" };
    static char path[512];
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/protein/%s", folders[i], name);
        FILE *f = fopen(path, "rb");
        if (!f) continue;
        fclose(f);
        return path;
    }
    return NULL;
}

/* Largest deviations of bonds N-CA, CA-C from Engh and Huber's, over all residues. */
static double bond_error(const eqnn_proteins *m)
{
    double worst = 0;
    for (int i = 0; i < m->residues; i++) {
        worst = fmax(worst, fabs(distance(atom(m, i, 0), atom(m, i, 1)) - 1.458));
        worst = fmax(worst, fabs(distance(atom(m, i, 1), atom(m, i, 2)) - 1.525));
    }
    return worst;
}

TEST(real_files)
{
    static const struct { const char *name, *chain; int residues, hetero; } file[4] = {
        { "1crn.pdb", "1CRN_A", 46, 0 }, { "1ubq.pdb", "1UBQ_A", 76, 58 },
        { "5L33.pdb", NULL, 106, -1 }, { "6MRR.pdb", NULL, 68, -1 }
    };
    static const char crambin[] = "TTCCPSIVARSNFNVCRLPGTPEAICATYTGCIIIPGATCPGDYAN";
    eqnn_ctx *c = test_context();
    for (int i = 0; i < 4; i++) {
        const char *path = data_file(file[i].name);
        eqnn_proteins *m = path ? eqnn_protein_open(c, path) : NULL;
        if (!path) return;
        CHECK(m && m->chains == 1 && m->residues == file[i].residues && m->broken == 0);
        if (!m) return;
        test_note("%s: %d models, %d alternates, %d hetero, %d incomplete", m->name[0], m->models,
                  m->alternates, m->hetero, m->incomplete);
        if (file[i].hetero >= 0) CHECK(m->hetero == file[i].hetero);
        if (file[i].chain) CHECK_TEXT(m->name[0], file[i].chain);
        for (int k = 0; i == 0 && k < 46; k++)
            CHECK("ACDEFGHIKLMNPQRSTVWY"[m->kind[k]] == crambin[k]);
        CHECK(bond_error(m) < 0.1);
        eqnn_proteins_free(m);
    }
    const char *path = data_file("ts50_backbone.npz");
    eqnn_proteins *m = path ? eqnn_protein_open(c, path) : NULL;
    if (!path) return;
    CHECK(m && m->chains == 50 && m->residues == 6861 && m->incomplete == 0);
    for (int i = 0; m && i < m->chains; i++) {
        int own = m->first[i + 1] - m->first[i];
        CHECK(own >= 79 && own <= 173);
        for (int k = m->first[i] + 1; k < m->first[i + 1]; k++)
            CHECK(distance(atom(m, k, 1), atom(m, k - 1, 1)) < 4.2);
    }
    eqnn_proteins_free(m);
}

TEST(backbone_arrays)
{
    static const char file[] = "protein_test.npz.tmp";
    eqnn_ctx *c = test_context();
    double n[2] = { 2, 1 }, seq[3] = { 3, -1, 19 }, x[36];
    for (int k = 0; k < 36; k++) x[k] = k;
    x[3] = NAN, x[35] = INFINITY;
    eqnn_array a[3];
    memset(a, 0, sizeof a);
    a[0].name = "n_res", a[0].dims = 1, a[0].shape[0] = 2, a[0].values = n;
    a[1].name = "seq", a[1].dims = 1, a[1].shape[0] = 3, a[1].values = seq;
    a[2].name = "coords", a[2].dims = 3, a[2].values = x;
    a[2].shape[0] = 3, a[2].shape[1] = 4, a[2].shape[2] = 3;
    CHECK(eqnn_npz_save(c, file, a, 3));
    eqnn_proteins *m = eqnn_protein_open(c, file);
    CHECK(m && m->chains == 2 && m->residues == 2 && m->incomplete == 1);
    CHECK(m && m->kind[0] == 20 && m->kind[1] == 19 && m->number[0] == 2 && isnan(m->pos[21]));
    CHECK(m && m->pos[0] == 12 && m->pos[11] == 23 && m->first[1] == 1 && m->first[2] == 2);
    eqnn_proteins_free(m);
    for (int i = 0; i < 3; i++) x[12 * i + 5] = NAN;
    CHECK(eqnn_npz_save(c, file, a, 3));
    CHECK(!eqnn_protein_open(c, file));
    CHECK_ERROR(c, "no residue");
    n[0] = 3;
    CHECK(eqnn_npz_save(c, file, a, 3));
    CHECK(!eqnn_protein_open(c, file));
    CHECK_ERROR(c, "disagree");
    CHECK(eqnn_npz_save(c, file, a, 2));
    CHECK(!eqnn_protein_open(c, file));
    CHECK_ERROR(c, "coords");
    remove(file);
}

/* --- generated backbones --- */

static double angle(const double *a, const double *b, const double *c)
{
    double ab = distance(a, b), bc = distance(b, c), ac = distance(a, c);
    return acos((ab * ab + bc * bc - ac * ac) / (2 * ab * bc)) / degree;
}

TEST(torsions)
{
    double a[3] = { .3, -1, 2 }, b[3] = { 1, .2, 2.5 }, c[3] = { 2, .1, 1.4 }, d[3];
    for (int k = -17; k <= 17; k++) {
        eqnn_place_atom(a, b, c, 1.5, 110 * degree, 10 * k * degree, d);
        CHECK_NEAR(distance(c, d), 1.5, 1e-14);
        CHECK_NEAR(angle(b, c, d), 110, 1e-11);
        CHECK_NEAR(eqnn_torsion(a, b, c, d) / degree, 10 * k, 1e-12);
    }
    double p[4][3] = { { 1, 0, 0 }, { 0, 0, 0 }, { 0, 0, -1 }, { 0, 1, -1 } };
    CHECK_NEAR(eqnn_torsion(p[0], p[1], p[2], p[3]), -1.5707963267948966, 1e-15);
}

/* What the generated chains hold: residues in the midst of helices and strands. */
typedef struct tally {
    int helix, strand, near; /* near: pairs of CA below 4 angstrom      */
    double bond, reach;      /* sums: O..N of a hydrogen bond; CA..CA / 2 over two residues */
} tally;

/* Bonds and angles of residue j and to the next one. */
static void check_peptide(const eqnn_proteins *m, int j)
{
    const double *N = atom(m, j, 0), *A = atom(m, j, 1), *C = atom(m, j, 2), *O = atom(m, j, 3),
                 *next = atom(m, j + 1, 0);
    CHECK_NEAR(distance(N, A), 1.458, 1e-11);
    CHECK_NEAR(distance(A, C), 1.525, 1e-11);
    CHECK_NEAR(distance(C, O), 1.231, 1e-11);
    CHECK_NEAR(distance(C, next), 1.329, 1e-11);
    CHECK_NEAR(angle(N, A, C), 111.2, 1e-9);
    CHECK_NEAR(angle(A, C, next), 116.2, 1e-9);
    CHECK_NEAR(angle(C, next, next + 3), 121.7, 1e-9);
    CHECK_NEAR(fabs(eqnn_torsion(A, C, next, next + 3)) / degree, 180, 1e-9);
    CHECK(fabs(distance(A, next + 3) - 3.8) < 0.03); /* a flat peptide group */
}

/* Are the five residues from j on of these kinds? */
static int five_of(const eqnn_proteins *m, int j, const char *kinds)
{
    for (int k = 0; k < 5; k++)
        if (!strchr(kinds, "ACDEFGHIKLMNPQRSTVWY"[m->kind[j + k]])) return 0;
    return 1;
}

/* The torsions of residue j, which has neighbours on both sides. */
static void check_structure(const eqnn_proteins *m, int j, tally *t)
{
    double phi = eqnn_torsion(atom(m, j - 1, 2), atom(m, j, 0), atom(m, j, 1), atom(m, j, 2));
    double psi = eqnn_torsion(atom(m, j, 0), atom(m, j, 1), atom(m, j, 2), atom(m, j + 1, 0));
    if (five_of(m, j, "AELKQR")) {
        CHECK_NEAR(phi / degree, -57, 1e-9);
        CHECK_NEAR(psi / degree, -47, 1e-9);
        t->bond += distance(atom(m, j, 3), atom(m, j + 4, 0));
        t->helix++;
    } else if (five_of(m, j, "VITYFW")) {
        CHECK_NEAR(phi / degree, -139, 1e-9);
        CHECK_NEAR(psi / degree, 135, 1e-9);
        t->reach += distance(atom(m, j, 1), atom(m, j + 2, 1)) / 2;
        t->strand++;
    }
}

static void check_chain(const eqnn_proteins *m, int first, int end, tally *t)
{
    for (int j = first; j + 1 < end; j++) {
        check_peptide(m, j);
        for (int k = first; k < j - 2; k++) t->near += distance(atom(m, j, 1), atom(m, k, 1)) < 4;
        if (j > first && j + 4 < end) check_structure(m, j, t);
    }
}

TEST(generated_backbones)
{
    eqnn_ctx *c = test_context();
    eqnn_backbone_opts o = { .spread = -1 };
    eqnn_proteins *m = eqnn_backbones(c, &o, 5, 40), *again = eqnn_backbones(c, &o, 12, 1);
    tally t = { 0, 0, 0, 0, 0 };
    CHECK(m && again && m->chains == 40 && again->chains == 1);
    if (!m || !again) return;
    for (int i = 0; i < m->chains; i++) {
        int n = m->first[i + 1] - m->first[i];
        CHECK(n >= 40 && n <= 80);
        check_chain(m, m->first[i], m->first[i + 1], &t);
    }
    test_note("%d in helices, O..N %.3f; %d in strands, %.3f a residue; %d contacts below 4",
              t.helix, t.bond / t.helix, t.strand, t.reach / t.strand, t.near);
    CHECK(t.helix > 100 && fabs(t.bond / t.helix - 3) < 0.2);
    CHECK(t.strand > 30 && fabs(t.reach / t.strand - 3.4) < 0.15);
    CHECK(t.near < 40);
    int n = m->first[8] - m->first[7];
    CHECK(again->residues == n && !memcmp(again->pos, m->pos + 12 * (size_t)m->first[7],
                                          12 * (size_t)n * sizeof(double)));
    eqnn_proteins_free(m);
    eqnn_proteins_free(again);
}

TEST(smallest_backbones)
{
    eqnn_ctx *c = test_context();
    eqnn_backbone_opts o = { .spread = -1, .least = 1, .most = 1 };
    eqnn_proteins *m = eqnn_backbones(c, &o, 0, 3);
    CHECK(m && m->residues == 3);
    eqnn_proteins_free(m);
    m = eqnn_backbones(c, &o, 0, 0);
    CHECK(m && m->residues == 0 && m->chains == 0);
    eqnn_proteins_free(m);
    o.least = 5;
    CHECK(!eqnn_backbones(c, &o, 0, 3));
    CHECK_ERROR(c, "backbones: 3 chains of 5 to 1 residues");
    o.least = 0, o.most = 7; /* each has a default of its own, within the other */
    m = eqnn_backbones(c, &o, 0, 3);
    CHECK(m && m->residues == 21);
    eqnn_proteins_free(m);
    o.least = 90, o.most = 0;
    m = eqnn_backbones(c, &o, 0, 3);
    CHECK(m && m->residues == 270);
    eqnn_proteins_free(m);
}

/* --- RMSD --- */

TEST(rmsd)
{
    static double a[300], b[300], wild[300];
    eqnn_ctx *c = test_context();
    eqnn_random(c, "a", 1, 300, a);
    memcpy(b, a, sizeof a);
    CHECK(eqnn_augment(c, 3, 4, 1, 5, 100, 3, b));
    CHECK(eqnn_rmsd(100, a, b) > 1);
    CHECK_NEAR(eqnn_rmsd_fitted(100, a, b), 0, 1e-6);
    CHECK_NEAR(eqnn_rmsd(100, b, b), 0, 0);
    for (int i = 0; i < 100; i++) b[3 * i] = -b[3 * i]; /* a mirror image is another body */
    CHECK(eqnn_rmsd_fitted(100, a, b) > 0.3);
    for (int i = 0; i < 300; i++) b[i] = a[i] + (i % 3 == 1 ? 2 : 0);
    CHECK_NEAR(eqnn_rmsd(100, a, b), 2, 1e-14);
    CHECK_NEAR(eqnn_rmsd_fitted(100, a, b), 0, 1e-6);
    /* two points: half the difference of their distances each; and what no turn can better */
    double p[6] = { 0, 0, 0, 3, 0, 0 }, q[6] = { 1, 1, 1, 1, 1, 2 };
    CHECK_NEAR(eqnn_rmsd_fitted(2, p, q), 1, 1e-7);
    p[4] = NAN;
    CHECK(isnan(eqnn_rmsd(2, p, q)) && isnan(eqnn_rmsd_fitted(2, p, q)));
    eqnn_random(c, "wild", 1, 300, wild);
    for (int i = 0; i < 300; i++) b[i] = a[i] + 0.1 * wild[i];
    double least = eqnn_rmsd_fitted(100, a, b);
    CHECK(least <= eqnn_rmsd(100, a, b));
    for (int k = 0; k < 20; k++) {
        memcpy(wild, b, sizeof b);
        eqnn_augment(c, 9, (uint64_t)k, 1, 0.1, 100, 3, wild);
        CHECK_NEAR(eqnn_rmsd_fitted(100, a, wild), least, 1e-9);
        CHECK(eqnn_rmsd(100, a, wild) >= least - 1e-12);
    }
    CHECK(isnan(eqnn_rmsd(0, a, b)) && isnan(eqnn_rmsd_fitted(0, a, b)));
    CHECK_NEAR(eqnn_rmsd_fitted(1, a, b), 0, 1e-12);
}

TEST_MAIN
