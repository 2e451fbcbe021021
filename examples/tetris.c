/* tetris.c - eight pieces, each seen once, are known in every orientation

   cc -O2 -I. examples/tetris.c -lm -o tetris && ./tetris          (--help lists the options)

   The pieces are made of four unit cubes. The first two are mirror images of each other: no
   rotation turns one into the other. Every piece is shown in one orientation only; then it is
   asked for in random ones.

   YOU WILL SEE   training; then a table. An ordinary network names all pieces as they were shown
                  and few of them turned. The equivariant one names all of them in all
                  orientations, and in a mirror takes left for right and right for left, as it
                  must.
   IT TEACHES     seven outputs of two kinds: six scalars (0e) say which piece, one pseudoscalar
                  (0o), which changes sign in a mirror, says left or right. That label alone
                  separates the mirror images; nothing about handedness is learned from examples.

   The polynomial model and the pieces are those of e3nn's tutorial: harmonics of the edges shorter
   than 1.1, two tensor products, sums over neighbours, no nonlinearity.

   The folder of --out gets log.csv, losses.svg, equivariant.safetensors and ordinary.safetensors;
   with --resume a run that was stopped goes on as if it had not been. */
#define EQNN_IMPLEMENTATION
#include "eqnn.h"
#include "eqnn_data.h"
#include <stdlib.h>

enum { PIECES = 8, CUBES = 4, NODES = PIECES * CUBES, OUT = 7, TRIALS = 100 };

static const char *const name[PIECES] = {
    "left-handed", "right-handed", "square", "line", "corner", "L", "T", "zigzag"
};
static const double cubes[NODES][3] = {
    { 0, 0, 0 },  { 0, 0, 1 }, { 1, 0, 0 }, { 1, 1, 0 }, { 0, 0, 0 }, { 0, 0, 1 }, { 1, 0, 0 },
    { 1, -1, 0 }, { 0, 0, 0 }, { 1, 0, 0 }, { 0, 1, 0 }, { 1, 1, 0 }, { 0, 0, 0 }, { 0, 0, 1 },
    { 0, 0, 2 },  { 0, 0, 3 }, { 0, 0, 0 }, { 0, 0, 1 }, { 0, 1, 0 }, { 1, 0, 0 }, { 0, 0, 0 },
    { 0, 0, 1 },  { 0, 0, 2 }, { 0, 1, 0 }, { 0, 0, 0 }, { 0, 0, 1 }, { 0, 0, 2 }, { 0, 1, 1 },
    { 0, 0, 0 },  { 1, 0, 0 }, { 1, 1, 0 }, { 2, 1, 0 }
};

/* What a piece is called: +1 or -1 in the pseudoscalar (output 0), or a one among the scalars. */
static double target(int piece, int out)
{
    if (piece < 2) return out == 0 ? 1 - 2 * piece : 0;
    return out == piece - 1;
}

/* --- the two models --- */

/* One graph holds all pieces; examples keep them apart. */
static const eqnn_graph *graph_of(eqnn_tensor *pos)
{
    int example[NODES];
    for (int i = 0; i < NODES; i++) example[i] = i / CUBES;
    eqnn_graph_opts o = { .example = example };
    return eqnn_radius_graph(pos, 1.1, &o);
}

/* Positions [cubes,3] to seven numbers a piece, label 1x0o+6x0e. */
static eqnn_tensor *equivariant(eqnn_tensor *pos)
{
    const eqnn_graph *g = graph_of(pos);
    eqnn_polynomial_opts o = {
        .mid = "64x0e+24x1e+24x1o+16x2e+16x2o", .out = "1x0o+6x0e", .neighbours = 2, .sum_last = 1
    };
    return eqnn_scale(eqnn_pool_sum(eqnn_polynomial(pos, g, "polynomial", &o), g),
                      0.5); /* 1/sqrt(cubes) */
}

/* The same by a network that sees twelve coordinates a piece and knows nothing of rotations. */
static eqnn_tensor *ordinary(eqnn_tensor *pos)
{
    eqnn_tensor *y = eqnn_mlp(eqnn_reshape(eqnn_as(pos, NULL), PIECES, 3 * CUBES), "ordinary",
                              "64,64,7", NULL);
    return eqnn_as(y, eqnn_irreps_make(eqnn_context(pos), "1x0o+6x0e"));
}

/* A model with the context that holds its weights. */
typedef struct model {
    const char *name;
    eqnn_tensor *(*net)(eqnn_tensor *pos);
    double rate; /* of Adam, at the start */
    eqnn_ctx *c;
} model;

static eqnn_tensor *positions(eqnn_ctx *c)
{
    return eqnn_as(eqnn_from_double(c, NODES, 3, cubes[0]), eqnn_irreps_make(c, "1x1o"));
}

/* --- training: every piece in its one orientation --- */

static eqnn_tensor *loss_of(const model *m)
{
    double t[PIECES][OUT];
    for (int p = 0; p < PIECES; p++)
        for (int k = 0; k < OUT; k++) t[p][k] = target(p, k);
    eqnn_tensor *y = eqnn_as(m->net(positions(m->c)), NULL); /* a loss may look at mere numbers */
    return eqnn_sum(eqnn_square(eqnn_sub(y, eqnn_from_double(m->c, PIECES, OUT, t[0]))));
}

static const char *model_path(const model *m, const char *folder)
{
    return eqnn_path_in(m->c, folder, "%s.safetensors", m->name);
}

/* The file holds weights, Adam's memory and how many epochs are done. */
static void save(const model *m, const char *folder, int epoch)
{
    char text[16];
    snprintf(text, sizeof text, "%d", epoch);
    if (*folder && eqnn_note(m->c, "epoch", text))
        eqnn_save(m->c, model_path(m, folder));
}

static int load(const model *m, const char *folder)
{
    const char *path = model_path(m, folder);
    FILE *f = fopen(path, "rb");
    if (!f) return 0; /* the run was stopped before this model's turn */
    fclose(f);
    const char *text = eqnn_load(m->c, path, NULL) ? eqnn_noted(m->c, "epoch") : NULL;
    if (!text) eqnn_fail(m->c, "'%s' does not say how far training had come", path);
    return text ? atoi(text) : 0;
}

/* 0 on an error, or when Ctrl-C came. */
static int train(const model *m, int epochs, int epoch, const char *folder, eqnn_csv *log)
{
    eqnn_adam *adam = eqnn_adam_make(m->c, NULL);
    eqnn_schedule schedule = { .kind = EQNN_COSINE, .rate = m->rate, .total = epochs };
    eqnn_progress bar;
    const int first = epoch;
    eqnn_progress_start(&bar, stderr, m->name, epochs, epoch);
    for (; epoch < epochs && !eqnn_error(m->c) && !eqnn_interrupted(); epoch++) {
        eqnn_tensor *loss = loss_of(m);
        double value = eqnn_value(loss);
        eqnn_backward(loss);
        eqnn_adam_rate(adam, eqnn_schedule_rate(&schedule, epoch));
        eqnn_adam_step(adam);
        eqnn_reset(m->c);
        eqnn_progress_show(&bar, epoch + 1, "loss %.6f", value);
        const double row[] = { epoch + 1, value };
        eqnn_csv_row(log, m->name, 2, row);
    }
    eqnn_progress_end(&bar);
    if (epoch > first) save(m, folder, epoch); /* else its file holds all that there is */
    return !eqnn_error(m->c) && !eqnn_interrupted();
}

/* --- what was learned --- */

/* Pieces all of whose outputs, rounded, are right. In a mirror the pseudoscalar changes sign. */
static int right(const eqnn_tensor *y, int mirrored)
{
    int count = 0;
    for (int p = 0; p < PIECES; p++) {
        int good = 1;
        for (int k = 0; k < OUT; k++) {
            double error = eqnn_at(y, p, k) - (k == 0 && mirrored ? -target(p, 0) : target(p, k));
            good &= error > -0.5 && error < 0.5;
        }
        count += good;
    }
    return count;
}

/* The percentage named correctly over random rotations, or rotations and the mirror. */
static double percent(const model *m, int mirrored)
{
    int count = 0;
    for (int k = 0; k < TRIALS; k++) {
        double R[9];
        eqnn_rotation_random(m->c, "trial", 0, R);
        for (int i = 0; i < 9 && mirrored; i++) R[i] = -R[i];
        count += right(m->net(eqnn_rotate(positions(m->c), R)), mirrored);
        eqnn_reset(m->c); /* and other random numbers next time */
    }
    return 100.0 * count / (PIECES * TRIALS);
}

static eqnn_tensor *as_function(eqnn_tensor *const *x, int n, void *user)
{
    (void)n;
    return ((const model *)user)->net(x[0]);
}

static double row(eqnn_table *t, model *m)
{
    double turned = percent(m, 0);
    eqnn_table_cell(t, "%s", m->name);
    eqnn_table_cell(t, "%zu", eqnn_parameter_size(m->c));
    eqnn_table_cell(t, "%.0f %%", 100.0 * right(m->net(positions(m->c)), 0) / PIECES);
    eqnn_table_cell(t, "%.1f %%", turned);
    eqnn_table_cell(t, "%.1f %%", percent(m, 1));
    eqnn_tensor *pos = positions(m->c);
    eqnn_table_cell(t, "%.1e", eqnn_check_equivariance(as_function, &pos, 1, m, 10, NULL));
    return turned;
}

static void show_answers(const model *m)
{
    double R[9];
    eqnn_rotation_random(m->c, "shown", 0, R);
    eqnn_tensor *y = m->net(eqnn_rotate(positions(m->c), R));
    printf("\nanswers to the pieces in one random orientation (the first column is the "
           "pseudoscalar)\n");
    for (int p = 0; p < PIECES; p++) {
        printf("  %-13s", name[p]);
        for (int k = 0; k < OUT; k++) printf(" %6.2f", eqnn_at(y, p, k));
        printf("\n");
    }
}

static void report(model m[2])
{
    show_answers(&m[0]);
    printf("\nnamed correctly, of %d pieces: as shown, and in %d random orientations\n\n", PIECES,
           TRIALS);
    eqnn_table *t = eqnn_table_make(
        m[0].c, "model|weights|as shown|turned|turned, mirrored|equivariance error");
    row(t, &m[1]);
    double turned = row(t, &m[0]);
    eqnn_table_print(t, stdout);
    printf("\nthe equivariant model, trained on one orientation, is right in %.1f %% of random "
           "ones\n", turned);
    eqnn_table_free(t);
}

static void draw(const model m[2], const char *folder)
{
    eqnn_plot *plot = eqnn_plot_make(m[0].c, &(eqnn_plot_opts){ .title = "Eight pieces, learned",
        .x_label = "epoch", .y_label = "sum of squared errors", .log_y = 1 });
    const char *log = eqnn_path_in(m[0].c, folder, "log.csv");
    for (int i = 0; i < 2; i++) eqnn_plot_csv(plot, log, m[i].name, 1, 2, NULL);
    eqnn_plot_save(plot, eqnn_path_in(m[0].c, folder, "losses.svg"));
    eqnn_plot_free(plot);
}

static void run(model m[2], int epochs, int resume, const char *folder)
{
    eqnn_csv *log = NULL;
    if (*folder && eqnn_make_folder(m[0].c, folder))
        log = eqnn_csv_open(m[0].c, eqnn_path_in(m[0].c, folder, "log.csv"), "model,epoch,loss",
                            resume);
    for (int i = 0; i < 2 && *folder && !resume; i++) /* what an earlier run left there */
        remove(model_path(&m[i], folder));
    int done = 0;
    double start = eqnn_clock();
    while (done < 2 && !eqnn_error(m[0].c)) {
        const model *now = &m[done];
        if (!train(now, epochs, resume ? load(now, folder) : 0, folder, log)) break;
        done++;
    }
    eqnn_csv_close(log);
    if (done == 2) printf("trained both in %.1f seconds\n", eqnn_clock() - start);
    if (done == 2 && *folder) draw(m, folder);
    if (done == 2) report(m);
    else if (eqnn_interrupted()) printf("interrupted; the same command with --resume continues\n");
}

static const eqnn_option options[] = {
    { "epochs", "1000", "passes over the eight pieces" },
    { "data", NULL, NULL },
    { "out", "build/tetris", "folder for log, picture and models; empty: none" },
    { NULL, NULL, NULL }
};

int main(int argc, char **argv)
{
    eqnn_args a;
    int go = eqnn_args_read(&a, argc, argv, "eight Tetris pieces, learned in one orientation",
                            options);
    if (go == 0) return eqnn_program_end(&a, NULL);
    eqnn_opts o = eqnn_args_context(&a);
    int epochs = eqnn_args_int(&a, "epochs", 1, 1000000), failed = 0;
    if (a.error[0]) return fprintf(stderr, "%s\n", a.error), 2;

    model m[2] = { { "equivariant", equivariant, 2e-2, eqnn_make(&o) },
                   { "ordinary", ordinary, 1e-2, eqnn_make(&o) } };
    eqnn_interrupt_catch();
    if (m[0].c && m[1].c) run(m, epochs, eqnn_args_on(&a, "resume"), eqnn_args_text(&a, "out"));
    for (int i = 0; i < 2; i++) {
        const char *error = m[i].c ? eqnn_error(m[i].c) : "no memory";
        if (error) fprintf(stderr, "%s: %s\n", m[i].name, error);
        failed |= error != NULL;
    }
    for (int i = 0; i < 2; i++) eqnn_free(m[i].c);
    return eqnn_program_end(&a, NULL) || failed;
}
