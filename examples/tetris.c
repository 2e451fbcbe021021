/* tetris.c - eight pieces, each seen once, are known in every orientation

   cc -O2 -I. examples/tetris.c -lm -o tetris && ./tetris          (--help lists the options)

   The pieces are made of four unit cubes. The first two are mirror images of each other: no
   rotation turns one into the other. Every piece is shown in one orientation only; then it is
   asked for in random ones.

   YOU WILL SEE   losses; then a table. An ordinary network names all pieces as they were shown
                  and few of them turned. The equivariant one names all of them in all
                  orientations, and in a mirror takes left for right and right for left, as it
                  must.
   IT TEACHES     seven outputs of two kinds: six scalars (0e) say which piece, one pseudoscalar
                  (0o), which changes sign in a mirror, says left or right. That label alone
                  separates the mirror images; nothing about handedness is learned from examples.

   The polynomial model and the pieces are those of e3nn's tutorial: harmonics of the edges shorter
   than 1.1, two tensor products, sums over neighbours, no nonlinearity. */
#define EQNN_IMPLEMENTATION
#include "eqnn.h"
#include "eqnn_data.h"

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

typedef eqnn_tensor *(*model)(eqnn_tensor *pos);

static eqnn_tensor *positions(eqnn_ctx *c)
{
    return eqnn_as(eqnn_from_double(c, NODES, 3, cubes[0]), eqnn_irreps_make(c, "1x1o"));
}

/* --- training: every piece in its one orientation --- */

static eqnn_tensor *loss_of(model f, eqnn_ctx *c)
{
    double t[PIECES][OUT];
    for (int p = 0; p < PIECES; p++)
        for (int k = 0; k < OUT; k++) t[p][k] = target(p, k);
    eqnn_tensor *y = eqnn_as(f(positions(c)), NULL); /* a loss may look at numbers as they are */
    return eqnn_sum(eqnn_square(eqnn_sub(y, eqnn_from_double(c, PIECES, OUT, t[0]))));
}

static void train(eqnn_ctx *c, const char *title, model f, double rate, int epochs)
{
    eqnn_adam *adam = eqnn_adam_make(c, NULL);
    eqnn_schedule schedule = { .kind = EQNN_COSINE, .rate = rate, .total = epochs };
    eqnn_open(c,
              "ordinary"); /* the second model's weights appear after the first has been trained */
    for (int epoch = 0; epoch < epochs && !eqnn_error(c) && !eqnn_interrupted(); epoch++) {
        eqnn_tensor *loss = loss_of(f, c);
        if (epoch % 100 == 0 || epoch == epochs - 1)
            printf("%-12s epoch %4d   loss %.6f\n", title, epoch, eqnn_value(loss));
        eqnn_backward(loss);
        eqnn_adam_rate(adam, eqnn_schedule_rate(&schedule, epoch));
        eqnn_adam_step(adam);
        eqnn_reset(c);
    }
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
static double percent(eqnn_ctx *c, model f, int mirrored)
{
    int count = 0;
    for (int k = 0; k < TRIALS; k++) {
        double R[9];
        eqnn_rotation_random(c, "trial", 0, R);
        for (int i = 0; i < 9 && mirrored; i++) R[i] = -R[i];
        count += right(f(eqnn_rotate(positions(c), R)), mirrored);
        eqnn_reset(c); /* and other random numbers next time */
    }
    return 100.0 * count / (PIECES * TRIALS);
}

static eqnn_tensor *as_function(eqnn_tensor *const *x, int n, void *user)
{
    (void)n;
    return (*(model *)user)(x[0]);
}

static double row(eqnn_table *t, eqnn_ctx *c, const char *title, const char *weights, model f)
{
    double turned = percent(c, f, 0);
    size_t size = 0;
    for (int i = 0; i < eqnn_parameter_count(c); i++) {
        eqnn_tensor *w = eqnn_parameter_at(c, i);
        if (!strncmp(eqnn_parameter_name(c, i), weights, strlen(weights)))
            size += (size_t)eqnn_rows(w) * (size_t)eqnn_cols(w);
    }
    eqnn_tensor *pos = positions(c);
    eqnn_table_cell(t, "%s", title);
    eqnn_table_cell(t, "%zu", size);
    eqnn_table_cell(t, "%.0f %%", 100.0 * right(f(pos), 0) / PIECES);
    eqnn_table_cell(t, "%.1f %%", turned);
    eqnn_table_cell(t, "%.1f %%", percent(c, f, 1));
    pos = positions(c);
    eqnn_table_cell(t, "%.1e", eqnn_check_equivariance(as_function, &pos, 1, &f, 10, NULL));
    return turned;
}

static void show_answers(eqnn_ctx *c)
{
    double R[9];
    eqnn_rotation_random(c, "shown", 0, R);
    eqnn_tensor *y = equivariant(eqnn_rotate(positions(c), R));
    printf("\nanswers to the pieces in one random orientation (the first column is the "
           "pseudoscalar)\n");
    for (int p = 0; p < PIECES; p++) {
        printf("  %-13s", name[p]);
        for (int k = 0; k < OUT; k++) printf(" %6.2f", eqnn_at(y, p, k));
        printf("\n");
    }
}

int main(int argc, char **argv)
{
    eqnn_args a;
    const eqnn_option own[] = { { "epochs", "1000", "passes over the eight pieces" },
                                { NULL, NULL, NULL } };
    int go = eqnn_args_read(&a, argc, argv, "eight Tetris pieces, learned in one orientation", own);
    if (go == 0) return 0;
    eqnn_opts o = { .seed = eqnn_args_seed(&a), .threads = eqnn_args_int(&a, "threads", 0, 1024) };
    int epochs = eqnn_args_int(&a, "epochs", 1, 1000000);
    if (a.error[0]) return fprintf(stderr, "%s\n", a.error), 2;

    eqnn_ctx *c = eqnn_make(&o);
    eqnn_interrupt_catch();
    double start = eqnn_clock();
    train(c, "equivariant", equivariant, 2e-2, epochs);
    train(c, "ordinary", ordinary, 1e-2, epochs);
    printf("trained both in %.1f seconds\n", eqnn_clock() - start);

    show_answers(c);
    printf("\nnamed correctly, of %d pieces: as shown, and in %d random orientations\n\n", PIECES,
           TRIALS);
    eqnn_table *t = eqnn_table_make(
        c, "model|weights|as shown|turned|turned, mirrored|equivariance error");
    row(t, c, "ordinary", "ordinary.", ordinary);
    double turned = row(t, c, "equivariant", "polynomial.", equivariant);
    eqnn_table_print(t, stdout);
    printf(
        "\nthe equivariant model, trained on one orientation, is right in %.1f %% of random ones\n",
        turned);

    if (eqnn_error(c)) fprintf(stderr, "error: %s\n", eqnn_error(c));
    int failed = eqnn_error(c) != NULL;
    eqnn_table_free(t);
    eqnn_free(c);
    return failed;
}
