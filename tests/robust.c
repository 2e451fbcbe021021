/* robust.c - what happens when things go wrong: no memory, hostile input, a kill in the middle of
   a save */
#define _POSIX_C_SOURCE 200809L
#include "memory.h"

#if defined(__unix__) || defined(__APPLE__)
#include <signal.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#define HAVE_FORK
#endif

/* ---- a short program that uses most of the library ------------------------------------------- */

static const double cloud[18] = { 0,   0, 0,   1, 0, 0.1, 0,    1.1, 0,
                                  0.2, 0, 0.9, 1, 1, 0.2, -0.7, 0.3, 0.4 };

static eqnn_network_opts small_network(void)
{
    eqnn_network_opts o;
    memset(&o, 0, sizeof o);
    o.hidden = "3x0e+2x0o+2x1o+2x1e";
    o.out = "1x0e";
    o.layers = 1;
    o.lmax = 2;
    o.radius = 1.6;
    o.basis = 4;
    o.radial_neurons = 8;
    return o;
}

static eqnn_tensor *energy_of(eqnn_tensor *pos)
{
    eqnn_network_opts o = small_network();
    return eqnn_sum(
        eqnn_network(NULL, NULL, pos, eqnn_radius_graph(pos, o.radius, NULL), "net", &o));
}

static int step(eqnn_ctx *c, eqnn_adam *adam)
{
    eqnn_tensor *pos = eqnn_from_double(c, 6, 3, cloud), *energy = energy_of(pos);
    eqnn_tensor *force = eqnn_neg(eqnn_grad(energy, pos));
    eqnn_backward(eqnn_add(eqnn_square(energy), eqnn_mean(eqnn_square(force))));
    int done = eqnn_adam_step(adam);
    eqnn_reset(c);
    return done;
}

static const char *scratch_file(void)
{
    static char path[256];
    const char *dir = getenv("TMPDIR");
    snprintf(path, sizeof path, "%s/eqnn_robust_%d_%d", dir ? dir : "/tmp", (int)sizeof(eqnn_real),
#ifdef HAVE_FORK
             (int)getpid());
#else
             0);
#endif
    return path;
}

/* 1 when everything was done. */
static int whole_program(eqnn_ctx *c)
{
    const char *path = scratch_file();
    eqnn_adam *adam = eqnn_adam_make(c, NULL);
    int done = step(c, adam);
    done &= step(c, adam);
    done &= eqnn_save(c, path);
    done &= eqnn_load(c, path, NULL);
    return done & step(c, adam);
}

TEST(allocation_failures)
{
    check_leaks(whole_program);
    remove(scratch_file());
}

TEST(steady_state_allocates_nothing)
{
    counter k = { 0, -1, 0, 0, 0 };
    eqnn_ctx *c = counted_context(&k);
    eqnn_adam *adam = eqnn_adam_make(c, NULL);
    for (int i = 0; i < 3; i++) CHECK(step(c, adam));
    long before = k.calls;
    for (int i = 0; i < 10; i++) CHECK(step(c, adam));
    test_note("%ld allocations before the fourth step, %zu bytes", before, k.bytes);
    CHECK(k.calls == before);
    CHECK_OK(c);
    eqnn_free(c);
    CHECK(k.bytes == 0);
}

/* A checkpoint of so many arguments that its sweep asks for memory before it begins. */
static int filling;

static eqnn_tensor *sum_block(eqnn_tensor *const *x, int n, void *user)
{
    eqnn_tensor *sum = x[0];
    (void)user;
    for (int i = 1; i < n; i++) sum = eqnn_add(sum, x[i]);
    return sum;
}

static int many_arguments(eqnn_ctx *c)
{
    eqnn_tensor *x[400], *w = eqnn_param(c, "w", 1, 1, NULL);
    eqnn_zeros(c, 1, filling);
    for (int i = 0; i < 400; i++) x[i] = eqnn_scale(w, 1);
    return eqnn_backward(eqnn_checkpoint(sum_block, x, 400, NULL, 0));
}

/* Memory ends in every part of it. */
TEST(no_memory_in_a_checkpoint)
{
    for (filling = 64; filling < 70000; filling += 700) check_leaks(many_arguments);
}

TEST(one_buffer)
{
    size_t size = (size_t)16 << 20;
    int calls = 0;
    void *buffer = malloc(size);
    eqnn_ctx *c = buffer_context(buffer, size, &calls);
    CHECK(c != NULL);
    eqnn_adam *adam = eqnn_adam_make(c, NULL);
    for (int i = 0; i < 20; i++) CHECK(step(c, adam));
    CHECK_OK(c);
    CHECK(calls == 0);
    size_t need = eqnn_memory_use(c).buffer;
    CHECK(need < size);
    eqnn_free(c);
    for (size_t less = 0; less < 8192; less += 8191) { /* as large as was asked for is enough */
        c = buffer_context((char *)buffer + 1, need - less, &calls);
        adam = eqnn_adam_make(c, NULL);
        int good = 1;
        for (int i = 0; i < 20; i++) good = good && step(c, adam);
        CHECK(good == (less == 0));
        eqnn_free(c);
    }
    free(buffer);
}

/* What is taken and given back in turn, in pieces of odd sizes, is the same memory every time. */
TEST(a_buffer_is_not_used_up)
{
    int calls = 0;
    size_t size = (size_t)4 << 20, first = 0;
    void *buffer = malloc(size);
    eqnn_ctx *c = buffer_context(buffer, size, &calls);
    const char *const json = "{\"a\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,3]}}";
    char bytes[128] = { 0 };
    size_t n = strlen(json);
    bytes[0] = (char)n;
    memcpy(bytes + 8, json, n);
    for (int i = 0; i < 1000; i++) {
        eqnn_file *f = eqnn_file_parse(c, bytes, 8 + n + 3);
        CHECK(f && eqnn_file_count(f) == 1);
        eqnn_file_close(f);
        if (i == 0) first = eqnn_memory_use(c).buffer;
    }
    CHECK_OK(c);
    CHECK(eqnn_memory_use(c).buffer == first);
    eqnn_free(c);
    free(buffer);
}

TEST(buffers_that_are_too_small)
{
    for (size_t size = 0; size < (size_t)1 << 20; size = size * 5 / 4 + 64) {
        int calls = 0;
        char *buffer = (char *)malloc(size + 1);
        eqnn_ctx *c = buffer_context(buffer + (size % 2), size, &calls); /* any alignment */
        eqnn_adam *adam = c ? eqnn_adam_make(c, NULL) : NULL;
        int done = c ? step(c, adam) : 0;
        CHECK(done || !c || eqnn_error(c) != NULL);
        CHECK(calls == 0);
        eqnn_free(c);
        free(buffer);
    }
}

/* ---- awkward input -------------------------------------------------------------------------- */

static int all_finite(const eqnn_tensor *x)
{
    int good = x != NULL;
    for (int i = 0; i < eqnn_rows(x); i++)
        for (int j = 0; j < eqnn_cols(x); j++) good &= fabs(eqnn_at(x, i, j)) < INFINITY;
    return good;
}

TEST(positions_that_are_not_numbers)
{
    static const double bad[3] = { NAN, INFINITY, -INFINITY };
    for (int k = 0; k < 3; k++) {
        eqnn_ctx *c = test_context();
        double v[18];
        memcpy(v, cloud, sizeof v);
        v[7] = bad[k];
        energy_of(eqnn_from_double(c, 6, 3, v));
        CHECK_ERROR(c, "radius_graph");
        /* one huge coordinate is legal: a cell list must not make a cell for every place on the
           way */
        v[7] = 1e30;
        CHECK(all_finite(energy_of(eqnn_from_double(c, 6, 3, v))));
    }
}

TEST(coincident_atoms)
{
    eqnn_ctx *c = test_context();
    double v[18];
    memcpy(v, cloud, sizeof v);
    memcpy(v + 3, v, 3 * sizeof(double));
    eqnn_tensor *pos = eqnn_from_double(c, 6, 3, v), *energy = energy_of(pos),
                *force = eqnn_grad(energy, pos);
    CHECK(all_finite(energy));
    CHECK(all_finite(force));
    CHECK(all_finite(eqnn_grad(eqnn_sum(eqnn_square(force)), pos)));
    eqnn_backward(eqnn_sum(eqnn_square(force)));
    for (int i = 0; i < eqnn_parameter_count(c); i++)
        CHECK(all_finite(eqnn_gradient(eqnn_parameter_at(c, i))));
}

TEST(one_atom_no_atoms_no_edges)
{
    eqnn_ctx *c = test_context();
    for (int n = 0; n < 3; n++) {
        double v[6] = { 0, 0, 0, 50, 0, 0 }; /* two atoms out of reach of one another */
        eqnn_tensor *pos = eqnn_from_double(c, n, 3, v), *energy = energy_of(pos),
                    *force = eqnn_grad(energy, pos);
        CHECK_OK(c);
        CHECK(all_finite(energy));
        CHECK(eqnn_rows(force) == n && all_finite(force));
        eqnn_backward(energy);
        CHECK_OK(c);
        eqnn_reset(c);
    }
}

TEST(mistakes_are_sentences)
{
    static const char *const bad[] = { "1x1q",   "1x",   "-1x0e",          "1x0e+", "x0e",
                                       "1.5x0e", "1X0e", "99999999999x0e", "1x-1e" };
    eqnn_ctx *c = test_context();
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        CHECK(eqnn_irreps_make(c, bad[i]) == NULL);
        CHECK(eqnn_error(c) != NULL);
        CHECK_ERROR(c, "irreps");
    }
    CHECK(eqnn_matmul(test_normal(c, 2, 3), test_normal(c, 2, 3)) == NULL);
    CHECK_ERROR(c, "matmul");
    eqnn_tensor *x = eqnn_from_e3nn(test_normal(c, 2, 3), eqnn_irreps_make(c, "1x1o"));
    CHECK(eqnn_silu(x) == NULL);
    CHECK_ERROR(c, "silu: 1x1o is not invariant");
    CHECK(!eqnn_silu(eqnn_enter(eqnn_enter(x, "layers.0"), "first"))); /* the layer is named */
    CHECK_ERROR(c, "silu in layers.0.first: 1x1o is not invariant");
    CHECK(!eqnn_matmul(x, eqnn_enter(x, "net")));
    CHECK_ERROR(c, "matmul in net: [2,3] x [2,3]");
    eqnn_fail(c, "mine: as it stands");
    CHECK_ERROR(c, "mine: as it stands");
    CHECK(eqnn_add(NULL, x) == NULL); /* NULL in, NULL out */
    eqnn_clear(c);
    eqnn_ctx *d = eqnn_make(NULL); /* types are compared by address */
    const eqnn_irreps *foreign = eqnn_irreps_make(d, "1x1o"), *here = eqnn_irreps_make(c, "1x1o");
    CHECK(!eqnn_as(test_normal(c, 2, 3), foreign));
    CHECK_ERROR(c, "as: 1x1o belongs to another context");
    CHECK(!eqnn_product_full(c, here, foreign, here, NULL));
    CHECK_ERROR(c, "product: 1x1o belongs to another context");
    eqnn_free(d);
    eqnn_network_opts nothing = { .hidden = "4x0e+2x1o", .out = "1x0o", .radius = 3, .lmax = 1 };
    CHECK(!eqnn_network(NULL, NULL, test_normal(c, 2, 3), eqnn_complete_graph(c, 2, NULL), "zero",
                        &nothing));
    CHECK_ERROR(c, "which would always be 0");
    eqnn_reset(c);
    CHECK(eqnn_square(x) == NULL); /* of a step that is over */
    CHECK(eqnn_error(c) != NULL);
    eqnn_clear(c);
}

/* A mark of which nothing is left: of an earlier step, or behind one that was rewound. */
TEST(marks_that_are_stale)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *x = test_normal(c, 20, 3);
    eqnn_mark a = eqnn_mark_make(c);
    eqnn_mark b = (x = eqnn_square(x), eqnn_mark_make(c));
    for (int i = 0; i < 3; i++) eqnn_rewind(b, eqnn_square(x)); /* one mark, several times */
    CHECK_OK(c);
    eqnn_rewind(a, NULL);
    for (int i = 0; i < 100; i++) test_normal(c, 20, 3);
    eqnn_tensor *y = eqnn_full(c, 1, 1, 3);
    CHECK(!eqnn_rewind(b, NULL));
    CHECK_ERROR(c, "rewind: the mark is of an earlier step");
    CHECK(eqnn_value(y) == 3);
    for (int later = 1; later < 4; later++) {
        eqnn_mark m = eqnn_mark_make(c);
        for (int i = 0; i < later; i++) {
            eqnn_reset(c);
            for (int k = 0; k < 50; k++) test_normal(c, 20, 3);
            eqnn_mark_make(c);
        }
        CHECK(!eqnn_rewind(m, NULL));
        CHECK_ERROR(c, "rewind: the mark is of an earlier step");
    }
    eqnn_reset(c);
    CHECK(eqnn_backward(eqnn_sum(eqnn_linear(test_normal(c, 2, 3), "l", 1, NULL))));
    CHECK_OK(c);
}

/* ---- what is missing or out of range -------------------------------------------------------- */

static eqnn_tensor *squared(eqnn_tensor *const *x, int n, void *user)
{
    (void)n, (void)user;
    return eqnn_square(x[0]);
}

TEST(missing_names_and_places)
{
    eqnn_ctx *c = test_context();
    double R[9];
    CHECK(!eqnn_normal(c, NULL, 2, 2));
    CHECK_ERROR(c, "random: the name is missing (NULL)");
    CHECK(!eqnn_uniform(c, NULL, 2, 2));
    CHECK_ERROR(c, "random: the name is missing (NULL)");
    eqnn_random(c, NULL, 1, 9, R);
    CHECK_ERROR(c, "random: the name or the place is missing");
    eqnn_random(c, "numbers", 1, 9, NULL);
    CHECK_ERROR(c, "random: the name or the place is missing");
    eqnn_rotation_random(c, NULL, 1, R);
    CHECK_ERROR(c, "random: the name");
    eqnn_rotation_random(c, "R", 1, NULL);
    CHECK_ERROR(c, "rotation_random: the place for R is missing");
    CHECK(eqnn_act_find(c, NULL) == EQNN_IDENTITY);
    CHECK_ERROR(c, "act_find: the name is missing");
    CHECK(!eqnn_read(test_normal(c, 2, 2), NULL));
    CHECK_ERROR(c, "read: the place for the numbers is missing");
    CHECK(eqnn_read(eqnn_zeros(c, 0, 3), NULL)); /* no numbers need no place */
    eqnn_irreps_D(eqnn_irreps_make(c, "1o"), NULL, R);
    eqnn_solid_harmonics(1, NULL, R);
    CHECK(!eqnn_wigner_3j(1, 1, 1, NULL));
}

TEST(missing_lists)
{
    eqnn_ctx *c = test_context();
    const eqnn_irreps *a = eqnn_irreps_make(c, "2x1o"), *b = eqnn_irreps_make(c, "2x0e");
    eqnn_tensor *x = test_features(c, 2, "2x1o");
    CHECK(!eqnn_irreps_blocks(c, NULL, 1));
    CHECK_ERROR(c, "irreps_blocks: the list is missing");
    CHECK(!eqnn_irreps_blocks(c, NULL, -1));
    CHECK_ERROR(c, "-1 blocks");
    CHECK(eqnn_irreps_blocks(c, NULL, 0) != NULL);
    CHECK(!eqnn_product_make(c, a, a, b, NULL, 1, NULL));
    CHECK_ERROR(c, "product: the list of paths is missing");
    CHECK(!eqnn_product_make(c, a, a, b, NULL, -1, NULL));
    CHECK_ERROR(c, "-1 paths");
    CHECK(!eqnn_extract(x, NULL, 1));
    CHECK_ERROR(c, "extract: the list of blocks is missing");
    CHECK(!eqnn_rotate(x, NULL));
    CHECK_ERROR(c, "rotate: the matrix R is missing");
    CHECK(!eqnn_grads(eqnn_sum_rows(eqnn_sum_cols(eqnn_square_copies(x))), NULL, 2, NULL));
    CHECK_ERROR(c, "grads: x or the place for dx is missing");
    CHECK(!eqnn_concat_n(NULL, 2) && !eqnn_stack(NULL, 2)); /* there is no context */
    CHECK(!eqnn_concat_n(&x, 0) && !eqnn_stack(&x, 0) && !eqnn_checkpoint(squared, &x, 0, NULL, 0));
    CHECK(!eqnn_checkpoint(squared, NULL, 1, NULL, 0));
    CHECK(isnan(eqnn_check_derivatives(squared, NULL, 1, NULL, 1, 0)));
    CHECK(isnan(eqnn_check_equivariance(squared, NULL, 1, NULL, 5, NULL)));
}

/* What an index reads must be there, whatever range it claims. */
TEST(indices_into_nothing)
{
    static const int far[4] = { 100000000, 1, 2, 7 };
    eqnn_ctx *c = test_context();
    eqnn_ints *any = eqnn_ints_make(c, 4, far, 0, 0), *none = eqnn_ints_make(c, 0, NULL, 0, 0);
    CHECK(!eqnn_take(eqnn_zeros(c, 0, 3), any));
    CHECK_ERROR(c, "take: 4 numbers of range 0 for 0 rows");
    CHECK(!eqnn_columns(eqnn_zeros(c, 4, 0), any));
    CHECK_ERROR(c, "columns: 4 numbers of range 0 for 0 columns");
    CHECK(eqnn_rows(eqnn_take(eqnn_zeros(c, 0, 3), none)) == 0);
    CHECK(eqnn_cols(eqnn_columns(eqnn_zeros(c, 4, 0), none)) == 0);
    CHECK_OK(c);
}

static eqnn_tensor *nothing(eqnn_ctx *c, const void *user)
{
    (void)c, (void)user;
    return NULL;
}

/* Sizes whose products an int does not hold, lists and operands that are half there. */
TEST(sizes_that_overflow)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *x = test_normal(c, 4, 3), *two[2] = { x, NULL };
    const eqnn_graph *g = eqnn_complete_graph(c, 4, NULL);
    static const int path[1][2] = { { 0, 0 } }, zeros[4] = { 0, 0, 0, 0 };
    eqnn_irreps_linear_opts linear;
    eqnn_gat_opts gat;
    memset(&linear, 0, sizeof linear);
    memset(&gat, 0, sizeof gat);
    gat.heads = 65536;
    CHECK(!eqnn_gat_conv(x, test_normal(c, g->edges, 2), g, "gat", 65536, &gat));
    CHECK_ERROR(c, "gat_conv: 65536 heads of 65536 channels are too many");
    CHECK(!eqnn_put(test_normal(c, 4, 1), eqnn_ints_make(c, 4, zeros, 0, 0), 1 << 30));
    eqnn_clear(c);
    CHECK(!eqnn_slice(x, 4, 0x7fffffff) && !eqnn_slice_rows(x, 4, 0x7fffffff));
    CHECK_ERROR(c, "slice: 2147483647 columns from 4 on of [4,3]");
    CHECK(!eqnn_irreps_spherical(c, 65536));
    CHECK_ERROR(c, "lmax 65536 is too large");
    linear.paths = path, linear.path_count = -1;
    CHECK(!eqnn_irreps_linear(test_features(c, 2, "2x1o"), "lin", "2x1o", &linear));
    CHECK_ERROR(c, ".path_count -1 is negative");
    CHECK(!eqnn_vjps(x, x, &x, 1, NULL));
    CHECK_ERROR(c, "vjps: x or the place for slopes is missing");
    CHECK(!eqnn_write_file(c, "/tmp/eqnn_never_written", NULL, 5));
    CHECK_ERROR(c, "write_file: the bytes are missing");
    CHECK(!eqnn_fc(x, "fc", NULL, NULL));
    CHECK_ERROR(c, "fc: the widths are missing");
    CHECK(!eqnn_once(c, "never", nothing, NULL));
    CHECK_ERROR(c, "once: what makes \"never\" returned NULL");
    CHECK(isnan(eqnn_check_derivatives(squared, two, 2, NULL, 1, 0)));
    CHECK_ERROR(c, "check_derivatives");
}

TEST(missing_functions)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *x = test_normal(c, 2, 2);
    eqnn_parts *parts = eqnn_parts_make(c, 2, 1);
    CHECK(!eqnn_checkpoint(NULL, &x, 1, NULL, 0));
    CHECK_ERROR(c, "checkpoint: the function is missing");
    CHECK(isnan(eqnn_check_derivatives(NULL, &x, 1, NULL, 1, 0)));
    CHECK_ERROR(c, "check_derivatives: the function is missing");
    CHECK(isnan(eqnn_check_equivariance(NULL, &x, 1, NULL, 5, NULL)));
    CHECK_ERROR(c, "check_equivariance: the function is missing");
    CHECK(!eqnn_once(c, "x", NULL, NULL));
    CHECK_ERROR(c, "once: the name or the maker is missing");
    CHECK(!eqnn_parts_run(parts, NULL, NULL));
    CHECK_ERROR(c, "parts_run: the function is missing");
    eqnn_parts_free(parts);
    CHECK(isnan(eqnn_check_derivatives(squared, &x, 1, NULL, 3, 0)));
    CHECK_ERROR(c, "order 3; 1 and 2 are checked");
    for (int trials = -1; trials < 1; trials++) {
        CHECK(isnan(eqnn_check_equivariance(squared, &x, 1, NULL, trials, NULL)));
        CHECK_ERROR(c, "trials show nothing");
    }
}

/* A rule that does what user says: a cotangent of another size, or none. */
static int wrong_rule(eqnn_tensor *const *x, int n, eqnn_tensor *y, eqnn_tensor *g, const int *want,
                      eqnn_tensor **dx, void *user)
{
    (void)x, (void)n, (void)y, (void)want;
    if (*(const int *)user) dx[0] = eqnn_sum(g);
    return 1;
}

TEST(custom_operations_name_themselves)
{
    static const char *const sentence[2] = { "mine: its rule gave no cotangent of input 0",
                                             "mine: its rule gave a cotangent [1,1] of input 0, "
                                             "which is [2,2]" };
    eqnn_ctx *c = test_context();
    eqnn_tensor *x = test_normal(c, 2, 2);
    eqnn_custom_op op = { "mine", squared, wrong_rule };
    for (int sized = 0; sized < 2; sized++) {
        CHECK(!eqnn_grad(eqnn_sum(eqnn_custom(&op, &x, 1, &sized, sizeof sized)), x));
        CHECK_ERROR(c, sentence[sized]);
    }
    op.rule = NULL;
    CHECK(!eqnn_custom(&op, &x, 1, NULL, 0));
    CHECK_ERROR(c, "mine: its rule is missing");
    op.value = NULL;
    CHECK(!eqnn_custom(&op, &x, 1, NULL, 0));
    CHECK_ERROR(c, "mine: its value function is missing");
    op.name = NULL;
    CHECK(!eqnn_custom(&op, &x, 1, NULL, 0));
    CHECK_ERROR(c, "custom: the operation or its name is missing");
    CHECK(!eqnn_custom(NULL, &x, 1, NULL, 0));
    CHECK_ERROR(c, "custom: the operation or its name is missing");
    CHECK(!eqnn_custom(&op, NULL, 1, NULL, 0));
}

/* Makes a context with these options, which must be refused. */
static void refused_context(eqnn_opts o, const char *part)
{
    eqnn_ctx *c = eqnn_make(&o);
    CHECK_ERROR(c, part);
    eqnn_free(c);
}

TEST(options_of_a_context)
{
    eqnn_opts o = test_opts(), good = o;
    o.lanes = 7;
    refused_context(o, ".lanes is 7");
    o = good, o.threads = -3;
    refused_context(o, ".threads is -3");
    o = good, o.buffer_size = 100;
    refused_context(o, ".buffer_size is 100, but there is no .buffer");
}

TEST(probabilities_out_of_range)
{
    static const double bad[3] = { -0.1, 1.1, NAN };
    eqnn_ctx *c = test_context();
    eqnn_tensor *x = test_features(c, 4, "2x1o");
    for (int training = 0; training < 2; training++) {
        eqnn_training(c, training);
        for (int i = 0; i < 3; i++) {
            CHECK(!eqnn_irreps_dropout(x, "drop", bad[i], NULL));
            CHECK_ERROR(c, "irreps_dropout: probability");
            CHECK(!eqnn_drop_path(x, "drop", bad[i], NULL));
            CHECK_ERROR(c, "drop_path: probability");
        }
    }
    int example[4] = { 0, 0, 1, 1 };
    CHECK(!eqnn_irreps_dropout(x, "drop", 0.5, eqnn_ints_make(c, 3, example, 2, 0)));
    CHECK_ERROR(c, "4 rows and 3 numbers of examples; there must be one a row");
    CHECK(!eqnn_irreps_dropout(x, "drop", 0.5, eqnn_ints_make(c, 4, example, 0, 0)));
    CHECK_ERROR(c, "make the numbers of examples with their range");
}

TEST(norms_need_a_positive_eps)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *x = test_normal(c, 4, 3);
    eqnn_norm_opts o;
    eqnn_irreps_norm_opts b;
    memset(&o, 0, sizeof o);
    memset(&b, 0, sizeof b);
    o.eps = b.eps = -1;
    CHECK(!eqnn_layer_norm(x, "a", &o));
    CHECK_ERROR(c, "layer_norm in a: .eps is -1; it must be positive");
    CHECK(!eqnn_batch_norm(x, "a", &o));
    CHECK_ERROR(c, "batch_norm in a: .eps is -1");
    CHECK(!eqnn_irreps_layer_norm(x, "a", &o));
    CHECK_ERROR(c, "irreps_layer_norm: .eps is -1");
    CHECK(!eqnn_separable_layer_norm(x, "a", &o));
    CHECK_ERROR(c, "separable_layer_norm: .eps is -1");
    CHECK(!eqnn_irreps_batch_norm(x, "a", &b));
    CHECK_ERROR(c, "irreps_batch_norm: .eps is -1");
}

TEST(values_out_of_range)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *x = test_normal(c, 4, 3);
    eqnn_init init;
    eqnn_radial_opts radial;
    eqnn_harmonics_opts harmonics;
    eqnn_schedule s;
    memset(&init, 0, sizeof init);
    memset(&radial, 0, sizeof radial);
    memset(&harmonics, 0, sizeof harmonics);
    memset(&s, 0, sizeof s);
    CHECK(!eqnn_huber(x, x, 0));
    CHECK_ERROR(c, "huber: delta is 0");
    init.kind = (eqnn_init_kind)11;
    CHECK(!eqnn_param(c, "w", 1, 3, &init));
    CHECK_ERROR(c, "\"w\" cannot begin by .kind 11; there are 0 to 10");
    radial.basis = (eqnn_basis)6;
    CHECK(!eqnn_radial_basis(eqnn_norm(x), 5, 3, &radial));
    CHECK_ERROR(c, "radial_basis: there is no .basis 6");
    harmonics.kind = (eqnn_harmonics_kind)3;
    CHECK(!eqnn_spherical_harmonics(x, 2, &harmonics));
    CHECK_ERROR(c, "spherical_harmonics: there is no .kind 3");
    CHECK(isnan(eqnn_moment(c, EQNN_POW, -2, 1)) && isnan(eqnn_moment(c, EQNN_POW, -0.5, 1)));
    CHECK_ERROR(c, "second moment");
    s.kind = EQNN_COSINE;
    s.rate = 0.1;
    CHECK_NEAR(eqnn_schedule_rate(&s, 1000), 0.1, 0); /* without .total the rate stays */
}

TEST(sizes_of_equiformers)
{
    static const char *const part[4] = { ".depth is -1", "see nothing", "see nothing",
                                         "no size may be negative" };
    static const int kinds[3] = { 0, 1, 0 };
    eqnn_ctx *c = test_context();
    eqnn_ints *species = eqnn_ints_make(c, 3, kinds, 2, 1);
    for (int i = 0; i < 4; i++) {
        eqnn_tensor *pos = test_normal(c, 3, 3);
        const eqnn_graph *g = eqnn_complete_graph(c, 3, NULL);
        eqnn_equiformer_opts o;
        eqnn_equiformer_v1_opts v;
        memset(&o, 0, sizeof o);
        memset(&v, 0, sizeof v);
        o.dim = "4";
        if (i == 0) o.depth = -1;
        if (i == 1) o.heads = "0";
        if (i == 2) o.dim_head = "0";
        v.radius = -2;
        CHECK(!(i < 3 ? eqnn_equiformer(NULL, species, pos, g, "m", &o)
                      : eqnn_equiformer_v1(species, pos, g, "m", &v)));
        CHECK_ERROR(c, part[i]);
    }
}

/* Each of these options has a default where it is 0; below it is a mistake. */
TEST(negative_options_of_models)
{
    static const char *const part[9] = {
        "network: .basis is -1; it must be positive", "network: .radial_neurons is -1",
        "network: .neighbours is -1", "network: .nodes is -1", "attention: .basis is -1",
        "multi_head: .heads is -1", "gat_conv: .heads is -1", "gnn: .channels is -1",
        "attention_network: .out is 1x0e; where layers move positions it must be 1x1o" };
    eqnn_ctx *c = test_context();
    for (int i = 0; i < 9; i++) {
        eqnn_tensor *pos = test_features(c, 3, "1x1o"), *y;
        const eqnn_graph *g = eqnn_complete_graph(c, 3, NULL);
        eqnn_network_opts o = { .hidden = "2x0e", .out = "1x0e", .radius = 2 };
        eqnn_multi_head_opts m = { .head = { .q = "1x0e", .out = "1x0e", .radius = 2 } };
        eqnn_gat_opts gat = { .heads = -1 };
        eqnn_gnn_opts gnn = { .channels = -1 };
        if (i == 0) o.basis = -1;
        if (i == 1) o.radial_neurons = -1;
        if (i == 2) o.neighbours = -1;
        if (i == 3) o.nodes = -1;
        if (i == 4) m.head.basis = -1;
        if (i == 5) m.heads = -1;
        if (i == 8) m.out = "1x0e";
        if (i < 4) y = eqnn_network(NULL, NULL, pos, g, "m", &o);
        else if (i == 6) y = eqnn_gat_conv(eqnn_as(pos, NULL), NULL, g, "m", 4, &gat);
        else if (i == 7) y = eqnn_gnn(pos, g, "m", &gnn);
        else y = eqnn_attention_network(pos, g, "m", &m);
        CHECK(!y);
        CHECK_ERROR(c, part[i]);
    }
}

TEST(options_of_products)
{
    static const double variance[1] = { -1 };
    eqnn_ctx *c = test_context();
    const eqnn_irreps *a = eqnn_irreps_make(c, "2x0e");
    eqnn_path path = { 0, 0, 0, EQNN_UUU, 0, 0 };
    eqnn_product_opts o = { .in2_var = variance }, k = { .path_kind = (eqnn_path_kind)3 };
    eqnn_irreps_linear_opts l = { .path_kind = (eqnn_path_kind)3 };
    eqnn_fc_opts f = { .variance_out = -2 };
    CHECK(!eqnn_product_make(c, a, a, a, &path, 1, &o));
    CHECK_ERROR(c, "product: .in2_var[0] is -1");
    CHECK(!eqnn_product_make(c, a, a, a, &path, 1, &k));
    CHECK_ERROR(c, "product: there is no .irrep_kind 0 with .path_kind 3");
    path.path_weight = NAN;
    CHECK(!eqnn_product_make(c, a, a, a, &path, 1, NULL));
    CHECK_ERROR(c, "product: path 0 has the weight nan");
    CHECK(!eqnn_irreps_linear(test_features(c, 3, "2x0e"), "l", "2x0e", &l));
    CHECK_ERROR(c, "irreps_linear in l: there is no .path_kind 3");
    CHECK(!eqnn_fc(test_normal(c, 3, 2), "f", "4", &f));
    CHECK_ERROR(c, "fc: .variance_out is -2");
}

/* What is made of other operations speaks for itself. */
TEST(sentences_name_what_was_called)
{
    static const int of[4] = { 0, 1, 1, 0 };
    eqnn_ctx *c = test_context();
    eqnn_tensor *v = test_features(c, 2, "1x1o"), *x = test_normal(c, 2, 3);
    eqnn_ints *i = eqnn_ints_make(c, 4, of, 2, 1);
    const eqnn_graph *g = eqnn_complete_graph(c, 3, NULL);
    eqnn_sgd_opts o = { .nesterov = 1 };
    eqnn_norm_opts n = { .momentum = -1 };
    CHECK(!eqnn_clamp(v, 0, 1));
    CHECK_ERROR(c, "clamp: 1x1o");
    CHECK(!eqnn_mean(v));
    CHECK_ERROR(c, "mean: 1x1o");
    CHECK(!eqnn_mean_cols(v));
    CHECK_ERROR(c, "mean_cols: 1x1o");
    CHECK(!eqnn_smooth_leaky_relu(v, 0.2));
    CHECK_ERROR(c, "smooth_leaky_relu: 1x1o");
    CHECK(!eqnn_cross_entropy(v, eqnn_ints_make(c, 2, of, 3, 0)));
    CHECK_ERROR(c, "cross_entropy: 1x1o");
    CHECK(!eqnn_scatter_mean(x, g));
    CHECK_ERROR(c, "scatter_mean: [2,3] for a graph of 6 edges");
    CHECK(!eqnn_edge_softmax(test_features(c, 6, "1x1o"), g));
    CHECK_ERROR(c, "edge_softmax: 1x1o");
    CHECK(!eqnn_segment_mean(x, i));
    CHECK_ERROR(c, "segment_mean: 4 indices");
    CHECK(!eqnn_segment_sum(x, i));
    CHECK_ERROR(c, "segment_sum: 4 indices");
    CHECK(!eqnn_cross_entropy(x, i));
    CHECK_ERROR(c, "cross_entropy: 4 classes for 2 rows");
    CHECK(!eqnn_cross_entropy(x, eqnn_ints_make(c, 2, (int[]){ 0, 3 }, 4, 0)));
    CHECK_ERROR(c, "cross_entropy: index 3 of row 1 lies outside 0..2");
    CHECK(!eqnn_vjp(x, eqnn_sum(x), x));
    CHECK_ERROR(c, "vjp: the cotangent is [1,1], y is [2,3]");
    CHECK(!eqnn_batch_norm(x, "b", &n));
    CHECK_ERROR(c, "batch_norm in b: .momentum is -1");
    CHECK(!eqnn_sgd_make(c, &o));
    CHECK_ERROR(c, "sgd: .nesterov");
    CHECK(isnan(eqnn_moment(c, EQNN_LOG, 0, 0)));
    CHECK_ERROR(c, "moment: log");
}

/* What an operation is about is not an option: a missing one is said, as a failed one is. */
TEST(missing_products_graphs_frames)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *x = test_features(c, 2, "1x1o"), *w = test_normal(c, 1, 1);
    const eqnn_product *p = eqnn_product_full(c, eqnn_label_of(x), eqnn_label_of(x),
                                              eqnn_irreps_make(c, "1x0e"), NULL);
    CHECK(!eqnn_tensor_product(x, x, w, NULL));
    CHECK_ERROR(c, "tensor_product: the product is missing");
    CHECK(!eqnn_message(x, x, w, NULL, NULL, eqnn_complete_graph(c, 2, NULL)));
    CHECK_ERROR(c, "message: the product is missing");
    CHECK(!eqnn_message(x, x, w, NULL, p, NULL));
    CHECK_ERROR(c, "message: the graph is missing");
    CHECK(!eqnn_reduced_product(&x, NULL));
    CHECK_ERROR(c, "reduced_product: the product is missing");
    CHECK(!eqnn_to_frame(x, NULL, EQNN_EDGES));
    CHECK_ERROR(c, "to_frame: the frame is missing");
    CHECK(!eqnn_from_frame(x, NULL, eqnn_label_of(x), EQNN_EDGES, 0));
    CHECK_ERROR(c, "from_frame: the frame is missing");
    CHECK(!eqnn_clamp(test_normal(c, 2, 2), 1, -1));
    CHECK_ERROR(c, "clamp: from 1 to -1");
}

/* Weights h V of messages: the sentence shows both. */
TEST(factors_of_weights)
{
    eqnn_ctx *c = test_context();
    const eqnn_graph *g = eqnn_complete_graph(c, 2, NULL);
    eqnn_tensor *x = test_features(c, 2, "1x0e"), *y = test_features(c, 2, "1x0e+1x1o");
    const eqnn_product *p = eqnn_product_channelwise(c, eqnn_label_of(x),
                                                     eqnn_label_of(y), NULL, NULL);
    CHECK(!eqnn_message(x, y, test_normal(c, 2, 7), test_normal(c, 8, 2), p, g));
    CHECK_ERROR(c, "message: weights h V of h [2,7] and V [8,2]: inner sizes differ");
}

TEST(advice_names_the_layer)
{
    static const char *const instead[4] = {
        "whole copies must drop: use eqnn_irreps_dropout", "use eqnn_irreps_layer_norm",
        "use eqnn_irreps_batch_norm", "relu in conv1: 2x1o is not invariant" };
    eqnn_ctx *c = test_context();
    eqnn_tensor *x = test_features(c, 2, "2x1o");
    for (int i = 0; i < 4; i++) {
        eqnn_tensor *y = eqnn_enter(x, "conv1");
        CHECK(!(i == 0   ? eqnn_dropout(y, "a", 0.5)
                : i == 1 ? eqnn_layer_norm(y, "a", NULL)
                : i == 2 ? eqnn_batch_norm(y, "a", NULL)
                         : eqnn_relu(y)));
        CHECK_ERROR(c, instead[i]);
    }
    eqnn_mlp(eqnn_norm_copies(x), "m", "3,x", NULL);
    CHECK_ERROR(c, "mlp in m: ");
    CHECK(!eqnn_ints_make(c, 2, NULL, 3, 0));
    CHECK_ERROR(c, "ints: the integers are missing (NULL)");
}

/* What they are at 0 and below, so that norms have values and gradients there. */
TEST(roots_and_logarithms_at_zero)
{
    static const double at[2] = { 0, -4 };
    eqnn_ctx *c = test_context();
    eqnn_tensor *x = eqnn_from_double(c, 1, 2, at);
    for (int order = 0; order < 4; order++) {
        for (int k = 0; k < 2; k++) {
            CHECK_NEAR(eqnn_at(eqnn_map(x, EQNN_POW, 0.5, order), 0, k), 0, 0);
            CHECK_NEAR(eqnn_at(eqnn_map(x, EQNN_POW, -0.5, order), 0, k), 0, 0);
        }
        CHECK_NEAR(eqnn_at(eqnn_map(x, EQNN_POW, -1, order), 0, 0), 0, 0);
        if (order) CHECK_NEAR(eqnn_at(eqnn_map(x, EQNN_LOG, 0, order), 0, 0), 0, 0);
    }
    CHECK(eqnn_at(eqnn_log(x), 0, 0) == -INFINITY && isnan(eqnn_at(eqnn_log(x), 0, 1)));
}

/* ---- files ---------------------------------------------------------------------------------- */

static eqnn_tensor *two_layers(eqnn_ctx *c, int width)
{
    eqnn_tensor *h = eqnn_linear(eqnn_full(c, 1, 4, 1), "first", width, NULL);
    return eqnn_linear(h, "second", 2, NULL);
}

TEST(wrong_size_in_a_file)
{
    const char *path = scratch_file();
    eqnn_ctx *a = test_context(), *b = test_context();
    two_layers(a, 8);
    CHECK(eqnn_save(a, path));
    CHECK(eqnn_load(b, path, NULL));
    two_layers(b, 7);
    CHECK_ERROR(b, "first.weight");
    remove(path);
}

TEST(truncated_and_foreign_files)
{
    char cut[300];
    const char *path = scratch_file();
    eqnn_ctx *a = test_context();
    two_layers(a, 8);
    CHECK(eqnn_save(a, path));
    FILE *f = fopen(path, "rb");
    char *bytes = (char *)malloc(1 << 20);
    size_t n = f ? fread(bytes, 1, 1 << 20, f) : 0;
    if (f) fclose(f);
    snprintf(cut, sizeof cut, "%s.cut", path);
    CHECK(!eqnn_load(a, "/no/such/file", NULL));
    CHECK_ERROR(a, "/no/such/file");
    for (size_t size = 0; size < n; size += 1 + size / 8) {
        eqnn_ctx *c = test_context();
        f = fopen(cut, "wb");
        fwrite(bytes, 1, size, f);
        fclose(f);
        CHECK(!eqnn_load(c, cut, NULL));
        CHECK(eqnn_error(c) != NULL);
        eqnn_clear(c);
        eqnn_free(test_contexts[--test_context_count]);
    }
    free(bytes);
    remove(path);
    remove(cut);
}

#ifdef HAVE_FORK
/* A process that saves without end is killed at some moment: the file is always a whole one. */
TEST(kill_during_save)
{
    char path[300];
    snprintf(path, sizeof path, "%s.kill", scratch_file());
    for (int round = 0; round < 12; round++) {
        pid_t child = fork();
        if (child == 0) {
            eqnn_opts o = test_opts();
            o.threads = 1;
            eqnn_ctx *c = eqnn_make(&o);
            for (int k = 0; ; k++) {
                for (int i = 0; i < eqnn_parameter_count(c); i++) {
                    eqnn_tensor *w = eqnn_parameter_at(c, i);
                    double *v = (double *)calloc((size_t)eqnn_rows(w) * (size_t)eqnn_cols(w),
                                                 sizeof(double));
                    for (int e = 0; e < eqnn_rows(w) * eqnn_cols(w); e++) v[e] = k;
                    eqnn_set(w, v);
                    free(v);
                }
                if (k == 0) two_layers(c, 20000);
                else if (!eqnn_save(c, path)) _exit(1);
            }
        }
        struct timespec pause = { 0, 20000000 + 7000000 * round };
        nanosleep(&pause, NULL);
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        FILE *f = fopen(path, "rb");
        if (!f) continue; /* killed before the first save was over */
        fclose(f);
        eqnn_ctx *c = test_context();
        CHECK(eqnn_load(c, path, NULL));
        two_layers(c, 20000);
        CHECK_OK(c);
        double first = eqnn_at(eqnn_parameter_at(c, 0), 0, 0);
        for (int i = 0; i < eqnn_parameter_count(c); i++) { /* all of one save */
            eqnn_tensor *w = eqnn_parameter_at(c, i);
            CHECK(eqnn_at(w, 0, 0) == first &&
                  eqnn_at(w, eqnn_rows(w) - 1, eqnn_cols(w) - 1) == first);
        }
    }
    remove(path);
    remove(strcat(path, ".part")); /* what the last kill left half written */
}
#endif

TEST_MAIN
