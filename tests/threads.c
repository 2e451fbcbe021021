/* threads.c - nothing is global: contexts in threads of their own do not know of one another */
#define _POSIX_C_SOURCE 200809L
#include "test.h"
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

TEST_MAIN
