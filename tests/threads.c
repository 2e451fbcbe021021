/* threads.c - nothing is global: contexts in threads of their own do not know of one another */
#define _POSIX_C_SOURCE 200809L
#include "test.h"
#include "../eqnn_groups.h"
#include <pthread.h>

typedef struct job { double loss; const char *error; } job;

static const double square[12] = { 0, 0, 0, 1, 0, 0.1, 1, 1, 0.3, 0, 1, -0.2 };

/* A few steps of training a small network to give a number. */
static void *train(void *user)
{
    job *j = (job *)user;
    eqnn_opts o = test_opts();
    eqnn_network_opts n;
    memset(&n, 0, sizeof n);
    n.hidden = "4x0e+2x1o";
    n.out = "1x0e";
    n.layers = 1;
    n.lmax = 1;
    n.radius = 1.6;
    n.radial_neurons = 8;
    o.threads = 1;
    eqnn_ctx *c = eqnn_make(&o);
    eqnn_adam *adam = eqnn_adam_make(c, NULL);
    for (int i = 0; i < 5; i++) {
        eqnn_tensor *pos = eqnn_from_double(c, 4, 3, square);
        eqnn_tensor *y = eqnn_network(NULL, NULL, pos, eqnn_radius_graph(pos, 1.6, NULL), "net",
                                      &n);
        eqnn_tensor *loss = eqnn_square(eqnn_shift(eqnn_sum(y), -1));
        j->loss = eqnn_value(loss);
        eqnn_backward(loss);
        eqnn_adam_step(adam);
        eqnn_reset(c);
    }
    j->error = eqnn_error(c) ? "an error" : NULL;
    eqnn_free(c);
    return NULL;
}

TEST(contexts_in_threads)
{
    enum { N = 6 };
    pthread_t threads[N];
    job jobs[N], alone;
    train(&alone);
    CHECK(alone.error == NULL);
    for (int i = 0; i < N; i++) CHECK(pthread_create(&threads[i], NULL, train, &jobs[i]) == 0);
    for (int i = 0; i < N; i++) {
        pthread_join(threads[i], NULL);
        CHECK(jobs[i].error == NULL);
        CHECK(jobs[i].loss == alone.loss); /* bit for bit */
    }
}

/* Contexts in threads keep bases in one file at the same time: it is whole whenever it is read, and
   afterwards, in turns, what somebody's haste has dropped comes back. */
enum { KEEPERS = 4, BASES = 8 };
typedef struct keeper { const char *path, *error; int number; eqnn_ctx *c; } keeper;

static int64_t keep_basis(eqnn_ctx *c, int k)
{
    const eqnn_group *g = eqnn_group_make(c, k % 2 ? "SO(3)" : "S(4)");
    return eqnn_basis_dim(eqnn_rep_tensor(g, k / 2 + 1, 0));
}

static void *keep_bases(void *user)
{
    keeper *a = (keeper *)user;
    eqnn_basis_file(a->c, a->path);
    for (int i = 0; i < BASES; i++) keep_basis(a->c, (i + 3 * a->number) % BASES);
    a->error = eqnn_error(a->c);
    return NULL;
}

TEST(threads_share_a_file_of_bases)
{
    pthread_t threads[KEEPERS];
    keeper a[KEEPERS];
    char path[128];
    snprintf(path, sizeof path, "%.90s/eqnn_thread_bases_%d",
             getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp", (int)sizeof(eqnn_real));
    remove(path);
    for (int i = 0; i < KEEPERS; i++) {
        keeper one = { path, NULL, i, test_context() };
        a[i] = one;
        CHECK(pthread_create(&threads[i], NULL, keep_bases, &a[i]) == 0);
    }
    for (int i = 0; i < KEEPERS; i++) {
        pthread_join(threads[i], NULL);
        CHECK(a[i].error == NULL);
        if (a[i].error) test_note("%s", a[i].error);
    }
    eqnn_ctx *c = test_context();
    CHECK(eqnn_basis_file(c, path)); /* nothing in it is damaged */
    CHECK_OK(c);
    CHECK(eqnn_basis_dim(eqnn_rep_tensor(eqnn_group_make(a[0].c, "SO(3)"), 5, 0)) == 6);
    c = test_context();              /* a[0] knows all, and has just kept one more */
    eqnn_file *f = eqnn_file_open(c, path);
    CHECK(eqnn_file_count(f) == BASES + 1);
    eqnn_file_close(f);
    CHECK_OK(c);
    remove(path);
}

TEST_MAIN
