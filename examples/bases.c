/* bases.c - all linear maps between two representations that commute with a group

   cc -O2 -I. examples/bases.c -lm -o bases && ./bases "SO(3)" "V**2" "V"

   YOU WILL SEE   how many independent equivariant maps there are, the maps themselves as numbers
                  or, where these are many, by their size from . to @, and in build/bases a
                  picture: a random matrix made equivariant, then the basis. --demo: the three
                  examples by which the EMLP paper's code introduces itself (M. Finzi, M. Welling
                  and A. G. Wilson, ICML 2021, arXiv:2104.09459).
   IT TEACHES     an equivariant linear layer is any sum of these maps: three numbers may be all
                  that is left of hundreds. Groups and representations are expressions: "O(1,3)",
                  "S(5)", "SO(3)xS(5)"; "V", "10*T(1)+5*T(2)", "T(2,1)"; "V(Z(3))*V(S(4))" with
                  the group "mixed" when several groups act.

   "make test" runs it with
      --demo */
#define EQNN_IMPLEMENTATION
#include "eqnn_groups.h"
#include "eqnn_data.h"
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SHOWN = 8 }; /* matrices shown at most */

/* --- what is shown --- */

/* W [rows][cols] commutes with the group: a random one, then the basis' first ones. */
typedef struct gallery {
    int rows, cols, field, count; /* field 2: pairs (re, im), of which re is shown */
    int64_t dim;
    double *W;                    /* [count][rows][cols] */
} gallery;

static double *matrix_at(const gallery *g, int k)
{
    return g->W + (size_t)k * (size_t)g->rows * (size_t)g->cols;
}

static double largest(const double *W, size_t n)
{
    double most = 0;
    for (size_t i = 0; i < n; i++) most = fmax(most, fabs(W[i]));
    return most > 0 ? most : 1;
}

/* Matrix 0: random numbers, projected. The others: rows of the basis. 0 on an error. */
static int fill(eqnn_ctx *c, gallery *g, const eqnn_rep *maps)
{
    size_t n = (size_t)g->rows * (size_t)g->cols, f = (size_t)g->field, dim = (size_t)g->dim;
    double *v = (double *)malloc((n * f + 1) * sizeof *v);
    double *Q = g->count > 1 ? (double *)malloc(dim * n * f * sizeof *Q) : NULL;
    g->W = (double *)calloc((size_t)g->count * n + 1, sizeof *g->W);
    int good = v && g->W && (Q || g->count == 1);
    if (!good) eqnn_fail(c, "bases: no memory for %.0f numbers", (double)dim * (double)n);
    if (good) {
        eqnn_random(c, "bases", 1, n * f, v);
        good = eqnn_basis_project(maps, v) && (!Q || eqnn_basis_dense(maps, Q));
    }
    for (size_t i = 0; good && i < n; i++) g->W[i] = v[i * f];
    for (size_t k = 1; good && k < (size_t)g->count; k++)
        for (size_t i = 0; i < n; i++) g->W[k * n + i] = Q[((k - 1) * n + i) * f];
    free(Q);
    free(v);
    return good;
}

/* --- as text --- */

static void print_row(const double *row, int cols, double most)
{
    static const char shades[] = "-+*#@"; /* by size; signs are not told apart */
    printf("   ");
    for (int j = 0; j < cols; j++) {
        if (cols <= 12) printf(fabs(row[j]) < 1e-9 ? "      ." : " %6.3f", row[j]);
        else putchar(fabs(row[j]) < 1e-9 ? '.' : shades[(int)(fabs(row[j]) / most * 4.999)]);
    }
    printf("\n");
}

static void print_matrices(const gallery *g)
{
    size_t n = (size_t)g->rows * (size_t)g->cols;
    if (g->rows > 64 || g->cols > 100) {
        printf("too large for a terminal: see the picture\n");
        return;
    }
    for (int k = 0; k < g->count; k++) {
        const double *W = matrix_at(g, k);
        if (k == 0) printf("a random matrix, made equivariant\n");
        else printf("basis matrix %d of %" PRId64 "\n", k, g->dim);
        for (int i = 0; i < g->rows; i++)
            print_row(W + (size_t)i * (size_t)g->cols, g->cols, largest(W, n));
    }
}

/* --- as a picture --- */

/* One heat map at (x, y): zero is the middle of the colours. */
static void draw_matrix(FILE *file, const gallery *g, int k, double x, double y, double cell)
{
    const double *W = matrix_at(g, k);
    double most = largest(W, (size_t)g->rows * (size_t)g->cols);
    fprintf(file, "<text x='%.1f' y='%.1f'>", x, y - 5);
    if (k == 0) fprintf(file, "random, projected</text>\n");
    else fprintf(file, "%d of %" PRId64 "</text>\n", k, g->dim);
    char colour[8];
    eqnn_plot_colour(0.5, colour);
    fprintf(file, "<rect x='%.2f' y='%.2f' width='%.2f' height='%.2f' fill='%s'/>\n", x, y,
            g->cols * cell, g->rows * cell, colour);
    for (int i = 0; i < g->rows; i++)
        for (int j = 0; j < g->cols; j++) {
            double value = W[(size_t)i * (size_t)g->cols + (size_t)j] / most;
            eqnn_plot_colour(0.5 + 0.5 * value, colour);
            if (fabs(value) > 1e-9)
                fprintf(file, "<rect x='%.2f' y='%.2f' width='%.2f' height='%.2f' fill='%s'/>\n",
                        x + j * cell, y + i * cell, cell * 1.02, cell * 1.02, colour);
        }
}

/* All of them, four side by side. */
static void draw(eqnn_ctx *c, const gallery *g, const char *path, const char *title)
{
    int sides = g->rows > g->cols ? g->rows : g->cols, columns = g->count < 4 ? g->count : 4;
    double cell = sides > 0 ? 260.0 / sides : 1, gap = 30;
    double w = cell * g->cols + gap, h = cell * g->rows + gap + 10;
    int lines = (g->count + 3) / 4;
    FILE *file = fopen(path, "w");
    if (!file) {
        eqnn_fail(c, "bases: '%s' cannot be written", path);
        return;
    }
    double wide = fmax(columns * w + gap, 9.0 * (double)strlen(title));
    fprintf(file, "<svg xmlns='http://www.w3.org/2000/svg' width='%.0f' height='%.0f' "
            "font-family='sans-serif' font-size='12'>\n<rect width='100%%' height='100%%' "
            "fill='white'/>\n<text x='%.0f' y='22' font-size='15'>", wide, lines * h + 50, gap);
    for (const char *s = title; *s; s++) {
        if (*s == '>') fprintf(file, "&gt;");
        else if (*s == '<') fprintf(file, "&lt;");
        else if (*s == '&') fprintf(file, "&amp;");
        else fputc(*s, file);
    }
    fprintf(file, "</text>\n");
    for (int k = 0; k < g->count; k++)
        draw_matrix(file, g, k, gap + k % 4 * w, 60 + k / 4 * h, cell);
    fprintf(file, "</svg>\n");
    if (fclose(file)) eqnn_fail(c, "bases: '%s' cannot be written", path);
}

/* --- one problem --- */

/* What takes longer than a second is told while it goes on. */
typedef struct patience {
    eqnn_progress bar;
    double start;
    int shown;
} patience;

static void tell(void *user, const char *what, double done)
{
    patience *p = (patience *)user;
    int64_t thousandths = (int64_t)(1000 * done);
    if (!p->shown && eqnn_clock() - p->start < 1) return;
    if (!p->shown++) eqnn_progress_start(&p->bar, stderr, "solving", 1000, thousandths);
    eqnn_progress_show(&p->bar, thousandths, "%s", what);
}

static int64_t dimension(eqnn_ctx *c, const eqnn_rep *maps)
{
    patience p = { .start = eqnn_clock() };
    eqnn_basis_options(c, &(eqnn_basis_opts){ .progress = tell, .progress_user = &p });
    int64_t dim = eqnn_basis_dim(maps);
    if (p.shown) eqnn_progress_end(&p.bar);
    eqnn_basis_options(c, NULL);
    return dim;
}

/* The number of maps, or -1; what is asked for is shown. */
static int64_t solve(eqnn_ctx *c, const char *const word[3], const char *folder, const char *file)
{
    const eqnn_group *group = strcmp(word[0], "mixed") ? eqnn_group_make(c, word[0]) : NULL;
    const eqnn_rep *a = eqnn_rep_make(c, word[1], group), *b = eqnn_rep_make(c, word[2], group);
    const eqnn_rep *maps = eqnn_rep_map(a, b);
    double start = eqnn_clock();
    gallery g = { .rows = eqnn_rep_size(b), .cols = eqnn_rep_size(a), .dim = dimension(c, maps) };
    if (eqnn_error(c)) return -1;
    printf("%s: %s (%d) to %s (%d): %" PRId64 " equivariant map%s of %.0f numbers\n", word[0],
           word[1], g.cols, word[2], g.rows, g.dim, g.dim == 1 ? "" : "s",
           (double)g.cols * g.rows);
    printf("%s (%.3f seconds)\n", eqnn_basis_explain(maps), eqnn_clock() - start);
    const eqnn_group *named[16];
    int groups = eqnn_rep_groups(maps, named, 16);
    for (int i = 0, f = g.field = 1; i < groups; i++)
        g.field = f = eqnn_group_complex(named[i]) ? 2 : f;
    double numbers = (double)g.dim * g.rows * g.cols;
    g.count = numbers > 2e7 ? 1 : 1 + (int)(g.dim < SHOWN ? g.dim : SHOWN);
    if (g.dim > 0 && fill(c, &g, maps)) {
        if (!file) print_matrices(&g);
        if (*folder && (double)g.rows * g.cols < 1e5) {
            const char *title = eqnn_format(c, "%s: %s >> %s", word[0], word[1], word[2]);
            const char *path = eqnn_path_in(c, folder, "%s.svg", file ? file : "bases");
            draw(c, &g, path, title);
            if (!eqnn_error(c)) printf("picture in %s\n", path);
        }
    }
    free(g.W);
    return eqnn_error(c) ? -1 : g.dim;
}

static int demo(eqnn_ctx *c, const char *folder)
{
    static const char *const word[3][3] = {
        { "O(1,3)", "T(1,0)", "T(2,1)" },
        { "RubiksCube", "V", "V" },
        { "S(5)", "10*T(1)+5*T(2)", "3*T(0)+T(2)" } };
    static const char *const file[3] = { "lorentz", "rubik", "graph" };
    static const int known[3] = { 3, 9, 185 };
    int good = 0;
    for (int i = 0; i < 3; i++) {
        int64_t dim = solve(c, word[i], folder, file[i]);
        if (dim < 0) return 0;
        good += dim == known[i];
        printf("%s\n", dim == known[i] ? "as it must be\n" : "this is wrong\n");
    }
    printf("%d of 3 dimensions are right (the published code has 6 for the cube, whose turns are "
           "wrong there)\n", good);
    return good == 3;
}

static const eqnn_option options[] = {
    { "demo", "off", "the three examples of the paper's code" },
    { "out", "build/bases", "folder for the pictures; empty: none" },
    { "epochs", NULL, NULL }, /* nothing is trained here */
    { "data", NULL, NULL },
    { "resume", NULL, NULL },
    { NULL, NULL, NULL }
};

int main(int argc, char **argv)
{
    const char *word[3] = { "SO(3)", "V**2", "V" };
    eqnn_args a;
    int words = 0;
    while (words < 3 && argc > 1 + words && argv[1 + words][0] != '-') {
        word[words] = argv[1 + words];
        words++;
    }
    if (words) argv[words] = argv[0];
    eqnn_args_read(&a, argc - words, argv + words,
                   "equivariant maps; before all options GROUP INPUT OUTPUT, as \"SO(3)\" \"V**2\" "
                   "\"V\"", options);
    eqnn_opts o = eqnn_args_context(&a);
    const char *folder = eqnn_args_text(&a, "out");
    int all = eqnn_args_on(&a, "demo"), good = 1;
    if (words == 1 || words == 2)
        eqnn_args_fail(&a, "a group, an input and an output are needed; --help");
    if (words == 3 && all) eqnn_args_fail(&a, "--demo has groups of its own, and takes none");

    eqnn_ctx *c = eqnn_program_start(&a, &o);
    if (c && (!*folder || eqnn_make_folder(c, folder)))
        good = all ? demo(c, folder) : solve(c, word, folder, NULL) >= 0;
    return eqnn_program_end(&a, c) || !good;
}
