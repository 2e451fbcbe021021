/* study.c - every model of the trajectory study, trained for a few steps: loss and weights have the
   same bits on 1, 2, 3 and 8 threads and in a second run. */
#include "test.h"

enum { EXAMPLES = 12, BODIES = 12, NODES = EXAMPLES * BODIES, STEPS = 3 };
enum { MLP, SMALL, LARGE, V2106, ATTENTION, MULTI_HEAD, SE3, GNN, MODELS };

static const char *const names[MODELS] = {
    "mlp", "small", "large", "network 2106", "attention", "multi-head", "attention network", "gnn"
};

#define IRREPS "4x0e+4x0o+8x1o+4x1e+4x2e"
#define RADIUS 2.5

static eqnn_tensor *predict(int model, eqnn_tensor *pos, const eqnn_graph *g)
{
    static const eqnn_mlp_opts linear = { .linear = 1 };
    static const eqnn_polynomial_opts small = { .mid = IRREPS, .out = "1x1o", .neighbours = 11 };
    static const eqnn_network_opts large = { .hidden = IRREPS, .out = "1x1o", .layers = 2,
                                             .radius = RADIUS, .radial_neurons = 32,
                                             .neighbours = 11 };
    static const eqnn_attention_opts head = { .q = IRREPS, .out = "1x1o", .radius = RADIUS,
                                              .lmax = 2 };
    static const eqnn_gnn_opts gnn = { .channels = 16, .heads = 2, .hidden = 16 };
    eqnn_multi_head_opts heads = { .head = head, .heads = 2, .layers = 2, .centred = 1,
                                   .moves = 1 };
    heads.head.out = IRREPS;
    switch (model) {
    case MLP:
        return eqnn_reshape(eqnn_mlp(eqnn_reshape(eqnn_as(pos, NULL), EXAMPLES, 36), "net",
                                     "16,36", &linear), NODES, 3);
    case SMALL: return eqnn_polynomial(pos, g, "net", &small);
    case LARGE: return eqnn_network(NULL, NULL, pos, g, "net", &large);
    case V2106: return eqnn_network_2106(NULL, NULL, pos, g, "net", &large);
    case ATTENTION: return eqnn_attention(pos, pos, g, "net", &head);
    case MULTI_HEAD: return eqnn_multi_head(pos, pos, g, "net", &heads);
    case SE3: return eqnn_attention_network(pos, g, "net", &heads);
    default: return eqnn_gnn(pos, g, "net", &gnn);
    }
}

/* What the steps of one run leave. */
typedef struct outcome { uint64_t hash; double first, last; } outcome;

static outcome train(int model, int threads)
{
    outcome r = { 0, 0, 0 };
    eqnn_opts opts = test_opts();
    opts.threads = threads;
    eqnn_ctx *c = eqnn_make(&opts);
    eqnn_adam *adam = eqnn_adam_make(c, &(eqnn_adam_opts){ .rate = 2e-3 });
    int example[NODES];
    for (int i = 0; i < NODES; i++) example[i] = i / BODIES;
    for (int step = 0; step < STEPS; step++) {
        eqnn_graph_opts o = { .example = example, .examples = EXAMPLES };
        eqnn_tensor *pos = eqnn_as(eqnn_normal(c, "pos", NODES, 3), eqnn_irreps_make(c, "1x1o"));
        eqnn_tensor *y = predict(model, pos, eqnn_radius_graph(pos, RADIUS, &o));
        eqnn_tensor *loss = eqnn_mse(eqnn_as(y, NULL), eqnn_scale(eqnn_as(pos, NULL), 0.1));
        r.last = eqnn_value(loss);
        if (step == 0) r.first = r.last;
        eqnn_backward(loss);
        eqnn_adam_step(adam);
        eqnn_reset(c);
    }
    r.hash = test_hash(c);
    CHECK_OK(c);
    eqnn_free(c);
    return r;
}

TEST(same_bits_on_any_number_of_threads)
{
    static const int threads[] = { 1, 1, 2, 3, 8 };
    for (int m = 0; m < MODELS; m++) {
        outcome first = train(m, 1);
        test_note("%s: loss %.4g -> %.4g, hash %016llx", names[m], first.first, first.last,
                  (unsigned long long)first.hash);
        for (int i = 1; i < 5; i++) {
            outcome again = train(m, threads[i]);
            if (!CHECK(again.hash == first.hash && again.last == first.last))
                printf("    %s, %d threads\n", names[m], threads[i]);
        }
    }
}

TEST_MAIN
