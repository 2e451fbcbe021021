/* cuda_forms.h - the forms of a GPU against the processor's, on random plans, maps and sizes

   A part of tests/cuda.c. A trial makes a form of one kind on one graph (none, directed, paired, in
   several examples, bipartite) and compares its value, its derivatives, and both with tangents, for
   a random choice of slots; each on the GPU in both orders of threads, which must give the same
   bits. EQNN__FORM_TILE is small there, so that small forms take several tiles, and so is form_grid
   in most trials, so that blocks have many items. In half of the trials x is gathered and g summed,
   as in messages; dx is then summed apart whether rows of g are long or not. More trials:
   -DCUDA_TRIALS=60. */
#ifndef EQNN_TEST_CUDA_FORMS_H
#define EQNN_TEST_CUDA_FORMS_H

#ifndef CUDA_TRIALS
#define CUDA_TRIALS 10
#endif

/* ---- random forms ---- */

typedef struct definition {
    int paths, copies, map[256];
    eqnn__couple_path path[8];
    eqnn__mix_block block[4];
    eqnn__poly_record record[40];
    eqnn__radial_plan radial;
    double C[8][11 * 5 * 11];
} definition;

/* Components of 1 to 11, channels of 1 to 200; blocks of x and g that others use too, that overlap
   by chance, and whose channels are further apart; weights that all channels or paths share. By
   fours: all of it in whole fours, as 16 bytes at a time need it. */
static void random_paths(definition *d, int *cols)
{
    static const int channels[] = { 1, 2, 3, 8, 20, 32, 33, 70, 200 };
    int x = 0, y = 0, w = 0, g = 0, widest = test_pick(8), none = !test_pick(5);
    int step = test_pick(2) ? 4 : 1;
    d->paths = test_pick(12) ? 1 + test_pick(6) : 0;
    for (int i = 0; i < d->paths; i++) {
        eqnn__couple_path *p = d->path + i, *before = d->path + (i ? test_pick(i) : 0);
        p->channels = (channels[test_pick(widest + 2)] + step - 1) / step * step;
        p->d1 = 1 + test_pick(test_pick(4) ? 7 : 11), p->d2 = 1 + test_pick(5);
        p->d3 = 1 + test_pick(test_pick(4) ? 7 : 11);
        if (!test_pick(3)) p->d3 = p->d1, p->d2 = test_pick(2) ? 1 : p->d2;
        p->xs = p->channels + (test_pick(4) ? 0 : test_pick(3)) * step;
        p->gs = p->channels + (test_pick(4) ? 0 : test_pick(3)) * step;
        p->ys = 1 + !test_pick(4), p->ws = test_pick(4) ? 1 : test_pick(3);
        p->scale = 0.5 + test_pick(2);
        for (int n = 0; n < p->d1 * p->d2 * p->d3; n++)
            d->C[i][n] = p->d2 == 1 && p->d1 == p->d3 && n % (p->d1 + 1) ? 0
                         : test_pick(3)                                       ? test_number()
                                                                         : 0;
        p->C = d->C[i];
        p->x = x, p->y = y, p->w = test_pick(6) && !none ? w : -1, p->g = g;
        if (i && !test_pick(3)) { /* the same coupling of the same y; other weights and channels */
            int weight = p->w;
            *p = *before;
            p->w = weight, p->g = g;
        } else if (i && !test_pick(3)) { /* the same block of x, and perhaps of g */
            p->x = before->x, p->channels = before->channels;
            if (p->xs < p->channels) p->xs = p->channels;
            if (p->gs < p->channels) p->gs = p->channels;
            if (test_pick(2)) p->xs = before->xs, p->d1 = before->d1;
            if (test_pick(2)) p->g = before->g, p->gs = before->gs, p->d3 = before->d3;
            else if (test_pick(2)) p->g = before->g + test_pick(2) * step;
            if (test_pick(2) && before->w >= 0) p->w = before->w, p->ws = before->ws;
        }
        if (p->d2 == 1 && p->d1 == p->d3)
            for (int n = 0; n < p->d1 * p->d3; n++)
                if (n % (p->d1 + 1)) d->C[i][n] = 0;
        if (p->C != d->C[i]) p->C = memcpy(d->C[i], p->C, sizeof d->C[i]) ? d->C[i] : NULL;
        if (!test_pick(6) && p->d3 == 1) p->gs = test_pick(2);
        if (!test_pick(6) && p->d1 == 1) p->xs = test_pick(2);
        x = 0, y = 0, w = 0, g = 0;
        for (int k = 0; k <= i; k++) { /* where columns end */
            const eqnn__couple_path *q = d->path + k;
            int end[4] = { q->x + (q->d1 - 1) * q->xs + q->channels, q->y + (q->d2 - 1) * q->ys + 1,
                           q->w < 0 ? 0 : q->w + (q->channels - 1) * q->ws + 1,
                           q->g + (q->d3 - 1) * q->gs + q->channels };
            x = end[0] > x ? end[0] : x, y = end[1] > y ? end[1] : y;
            w = end[2] > w ? end[2] : w, g = end[3] > g ? end[3] : g;
            w = (w + step - 1) / step * step;
        }
    }
    cols[0] = x + (test_pick(2) + !x) * step, cols[1] = y + test_pick(2) + !y;
    cols[4] = g + (test_pick(2) + !g) * step;
    cols[3] = test_pick(3) ? w + step : 0;
    cols[2] = cols[3] ? 1 + test_pick(5) : test_pick(4) ? w + test_pick(2) * step : 0;
}

static void random_blocks(definition *d, int *cols)
{
    int x = 0, w = 0, g = 0;
    d->paths = 1 + test_pick(3);
    for (int i = 0; i < d->paths; i++) {
        eqnn__mix_block *m = d->block + i;
        m->d = 1 + test_pick(3), m->U = 1 + test_pick(40), m->V = 1 + test_pick(40), m->scale = 1.5;
        m->x = x, m->xs = m->U, m->w = w, m->g = g, m->gs = m->V;
        x += m->d * m->U, w += m->U * m->V;
        if (i && m->d <= d->block[i - 1].d && m->V == d->block[i - 1].V) m->g = d->block[i - 1].g;
        else g += m->d * m->V;
    }
    cols[0] = x + test_pick(2), cols[1] = w + test_pick(2), cols[2] = g + test_pick(2);
}

static int random_map(int slot, const eqnn_graph *g)
{
    int map = test_pick(5);
    if (!g) return slot && !test_pick(3) ? EQNN__ONE : EQNN__EACH;
    return map == EQNN__PAIR && !g->pairs ? EQNN__EACH : map;
}

static void random_kind(eqnn_ctx *c, definition *d, eqnn__form *f)
{
    if (f->kind == EQNN__COUPLE) {
        random_paths(d, f->cols);
        f->plan = eqnn__couple_plan(c, d->path, d->paths);
        f->map[3] = EQNN__ONE;
        f->weighted = !test_pick(4);
    } else if (f->kind == EQNN__MIX) {
        random_blocks(d, f->cols);
        if (test_pick(2)) { /* plain matrix products */
            f->map[0] = f->map[2] = EQNN__EACH;
            f->map[1] = test_pick(2) ? EQNN__ONE : EQNN__EACH;
        }
        f->plan = eqnn__mix_plan(c, d->block, d->paths);
    } else if (f->kind == EQNN__POLY) {
        static const int most[] = { 6, 6, 400, 1500, 6000 }; /* the last not for shared memory */
        static const int copies[] = { 1, 1, 1, 2, 7, 40 };
        int widest = most[test_pick(5)];
        d->copies = copies[test_pick(6)];
        d->paths = 1 + test_pick(40);
        for (int s = 0; s < f->slots; s++)
            f->cols[s] = s && s < f->slots - 1 && !test_pick(4) ? 0 : 1 + test_pick(widest);
        for (int r = 0; r < d->paths; r++) {
            d->record[r].c = test_number();
            for (int s = 0; s < f->slots; s++)
                d->record[r].col[s] = f->cols[s] ? test_pick(f->cols[s]) : 0;
        }
        f->plan = eqnn__poly_plan(c, f->slots, d->copies, d->record, d->paths);
        for (int s = 0; s < f->slots; s++) f->cols[s] *= d->copies;
    } else if (f->kind == EQNN__COPY) {
        d->paths = 1 + test_pick(200);
        f->cols[0] = f->cols[2] = d->paths, f->cols[1] = 1 + test_pick(9);
        for (int k = 0; k < d->paths; k++)
            d->map[k] = test_pick(2) && k ? (d->map[k - 1] + 1) % f->cols[1]
                                          : test_pick(f->cols[1]);
        f->plan = eqnn__copy_plan(c, d->map, d->paths);
    } else {
        eqnn__radial_plan *p = &d->radial;
        p->d = 1 + test_pick(5), p->U = 1 + test_pick(20), p->V = 1 + test_pick(20);
        f->cols[0] = p->d * p->U, f->cols[1] = 1 + test_pick(9), f->cols[2] = p->U * p->V;
        f->cols[3] = p->d * p->V;
        for (int s = 0; s < 4; s++) f->map[s] = s == 2 ? EQNN__ONE : EQNN__EACH;
        f->plan = p;
    }
}

static eqnn__form random_form(eqnn_ctx *c, definition *d, int kind, const eqnn_graph *g, int items)
{
    eqnn__form f;
    memset(&f, 0, sizeof f);
    memset(d, 0, sizeof *d);
    f.kind = kind, f.graph = g, f.items = g ? g->edges : items;
    f.slots = kind == EQNN__COUPLE   ? 5
              : kind == EQNN__RADIAL ? 4
              : kind == EQNN__POLY   ? 2 + test_pick(4)
                                     : 3;
    for (int s = 0; s < f.slots; s++) f.map[s] = random_map(s, g);
    if (kind == EQNN__COUPLE && g && test_pick(2)) f.map[0] = EQNN__SOURCE, f.map[4] = EQNN__TARGET;
    random_kind(c, d, &f);
    for (int s = 0; s < f.slots; s++) {
        int m = f.map[s];
        f.rows[s] = m == EQNN__ONE      ? 1
                    : m == EQNN__SOURCE ? g->sources
                    : m == EQNN__TARGET ? g->targets
                    : m == EQNN__PAIR   ? g->pairs
                                        : f.items;
    }
    if (kind == EQNN__COUPLE) f.rows[3] = f.cols[2];
    if (kind == EQNN__RADIAL) f.rows[2] = f.cols[1];
    return f;
}

/* kind 0: none, 1: edges one way only, 2: both ways, loops, and some through another image, 3: both
   ways and several examples, 4: sources and targets apart, most of them without edges. */
static const eqnn_graph *random_graph(eqnn_ctx *c, int kind, int atoms)
{
    static int source[20000], target[20000], example[512];
    static double shift[60000];
    int n = 0, examples = kind == 3 ? 4 : 1;
    eqnn_graph_opts opts;
    if (!kind) return NULL;
    memset(&opts, 0, sizeof opts);
    memset(shift, 0, sizeof shift);
    opts.sources = opts.targets = examples * atoms;
    for (int i = 0; i < examples * atoms && kind < 4; i++) {
        example[i] = i / atoms;
        if (kind == 2 && !test_pick(3)) source[n] = target[n] = i, n++;
        for (int j = i / atoms * atoms; j < i; j++)
            for (int image = 0; image < (kind == 2 && !test_pick(5) ? 3 : 1); image++) {
                if (!test_pick(4)) continue;
                shift[3 * n] = image, source[n] = i, target[n++] = j;
                if (kind > 1) shift[3 * n] = -image, source[n] = j, target[n++] = i;
            }
    }
    if (kind == 4) {
        opts.sources = 3 * atoms, opts.targets = 2 * atoms;
        for (n = 0; n < 5 * atoms; n++)
            source[n] = test_pick(3 * atoms), target[n] = test_pick(atoms) * test_pick(2);
    } else {
        opts.example = example, opts.examples = examples;
        if (kind == 2) opts.shift = shift;
    }
    return eqnn_graph_make(c, n, source, target, &opts);
}

/* ---- the same on the device ---- */

static void *there(eqnn__device *d, const void *from, size_t bytes)
{
    void *p = from ? eqnn__cuda_reserve(d, bytes + 1) : NULL;
    if (p) eqnn__cuda_copy(d, p, from, bytes, EQNN__TO_DEVICE);
    return p;
}

/* Numbers that begin so many behind the border of their memory, as a part of a tensor may. */
static eqnn_real *numbers_there(eqnn__device *d, const eqnn_real *from, size_t n, size_t behind)
{
    eqnn_real *p = from ? (eqnn_real *)eqnn__cuda_reserve(d, (n + behind) * sizeof *p + 1) : NULL;
    if (!p) return NULL;
    eqnn__cuda_copy(d, p + behind, from, n * sizeof *p, EQNN__TO_DEVICE);
    return p + behind;
}

#define THERE(name, n) to.name = (const int *)there(d, g->name, (size_t)(n) * sizeof(int))
static eqnn_graph graph_there(eqnn__device *d, const eqnn_graph *g)
{
    eqnn_graph to = *g;
    THERE(source, g->edges), THERE(target, g->edges), THERE(first, g->targets + 1);
    THERE(by_source, g->edges), THERE(first_by_source, g->sources + 1);
    THERE(pair, g->edges), THERE(pair_edge, g->pairs);
    return to;
}

static void graph_gone(eqnn__device *d, eqnn_graph *g)
{
    const int *all[7] = { g->source, g->target, g->first, g->by_source, g->first_by_source, g->pair,
                          g->pair_edge };
    for (int i = 0; i < 7; i++)
        if (all[i]) eqnn__cuda_release(d, (void *)(uintptr_t)all[i], 0);
}

/* The same form on the device; results into values of the host. */
static void device_form(eqnn__device *d, const eqnn__form *f, const eqnn_real *const v[],
                        const eqnn_real *const t[], eqnn_real *const out[])
{
    eqnn_real *a[EQNN__SLOTS], *b[EQNN__SLOTS], *o[EQNN__SLOTS];
    size_t behind[EQNN__SLOTS];
    eqnn__form g = *f;
    eqnn_graph graph;
    if (f->graph) graph = graph_there(d, f->graph), g.graph = &graph;
    for (int s = 0; s < EQNN__SLOTS; s++) {
        size_t n = s < f->slots ? (size_t)f->rows[s] * (size_t)f->cols[s] : 0;
        behind[s] = s == f->items % 13 ? 1 : 0;
        a[s] = n ? numbers_there(d, v[s], n, behind[s]) : NULL;
        b[s] = n && t ? numbers_there(d, t[s], n, 0) : NULL;
        o[s] = out[s] ? (eqnn_real *)eqnn__cuda_reserve(d, n * sizeof(eqnn_real) + 1) : NULL;
        if (o[s]) eqnn__cuda_fill(d, n, NAN, o[s]);
    }
    eqnn__cuda_form(d, &g, a, t ? (const eqnn_real *const *)b : NULL, o);
    for (int s = 0; s < f->slots; s++)
        if (out[s])
            eqnn__cuda_copy(d, out[s], o[s],
                            (size_t)f->rows[s] * (size_t)f->cols[s] * sizeof(eqnn_real),
                            EQNN__TO_HOST);
    for (int s = 0; s < EQNN__SLOTS; s++) {
        if (a[s]) eqnn__cuda_release(d, a[s] - behind[s], 0);
        if (b[s]) eqnn__cuda_release(d, b[s], 0);
        if (o[s]) eqnn__cuda_release(d, o[s], 0);
    }
    if (f->graph) graph_gone(d, &graph);
}

static int compare(eqnn__device *d, eqnn_ctx *c, const eqnn__form *f, unsigned want,
                   unsigned tangents)
{
    eqnn_tensor *v[EQNN__SLOTS] = {0}, *t[EQNN__SLOTS] = {0}, *out[EQNN__SLOTS];
    const eqnn_real *value[EQNN__SLOTS] = {0}, *tangent[EQNN__SLOTS] = {0};
    eqnn_real *got[EQNN__SLOTS] = {0}, *again[EQNN__SLOTS] = {0};
    int good = 1;
    for (int s = 0; s < f->slots; s++) {
        if (!f->cols[s]) want &= ~(1u << s), tangents &= ~(1u << s);
        v[s] = test_normal(c, f->rows[s], f->cols[s]);
        if (tangents >> s & 1) t[s] = test_normal(c, f->rows[s], f->cols[s]);
    }
    unsigned needed = eqnn__form_needed(f, tangents ? t : NULL, want);
    for (int s = 0; s < f->slots; s++) {
        size_t n = (size_t)f->rows[s] * (size_t)f->cols[s] + 1;
        if (needed >> s & 1) value[s] = v[s]->data;
        if (t[s]) tangent[s] = t[s]->data;
        if (want >> s & 1) got[s] = (eqnn_real *)calloc(n, sizeof(eqnn_real));
        if (want >> s & 1) again[s] = (eqnn_real *)calloc(n, sizeof(eqnn_real));
    }
    eqnn__form_apply(c, f, v, tangents ? t : NULL, want, out);
    device_form(d, f, value, tangents ? tangent : NULL, got);
    emulate_backwards = 1;
    device_form(d, f, value, tangents ? tangent : NULL, again);
    emulate_backwards = 0;
    for (int s = 0; s < f->slots; s++) {
        double error = 0, largest = 1e-3;
        size_t n = (size_t)f->rows[s] * (size_t)f->cols[s];
        if (!(want >> s & 1)) continue;
        for (size_t i = 0; i < n && out[s]; i++) {
            double e = fabs((double)out[s]->data[i] - (double)got[s][i]);
            error = e <= error ? error : e;
            largest = fmax(largest, fabs((double)out[s]->data[i]));
        }
        good &= CHECK(out[s] != NULL);
        good &= CHECK(!memcmp(got[s], again[s], n * sizeof(eqnn_real)));
        if (!CHECK(error / largest < test_eps(1e-12, 2e-4))) {
            good = 0;
            printf("    kind %d slot %d want %x tangents %x error %g items %d weighted %d\n",
                   f->kind, s, want, tangents, error / largest, f->items, f->weighted);
            for (int k = 0; k < f->slots; k++)
                printf("    slot %d map %d rows %d cols %d\n", k, f->map[k], f->rows[k],
                       f->cols[k]);
        }
        free(got[s]);
        free(again[s]);
    }
    return good;
}

/* One context for all trials: plans are known by their address, and last as long as it. */
static void compare_kind(int kind, int trials)
{
    char why[256] = "";
    eqnn_ctx *c = test_context();
    eqnn__device d;
    int good = 1, pairs = 0, messages = 0;
    memset(&d, 0, sizeof d);
    if (!CHECK(eqnn__cuda_begin(&d, 0, why, sizeof why))) return;
    for (int trial = 0; trial < trials && good; trial++) {
        definition *def = (definition *)calloc(1, sizeof *def);
        test_choices = (uint64_t)trial * 17 + 1;
        form_grid = trial % 3 ? 2 : 2048;
        form_long = trial % 4 ? 0 : 4;
        form_apart = trial % 7 ? 2000 : 100000;
        const eqnn_graph *g = random_graph(c, trial % 5, 2 + test_pick(trial % 7 ? 10 : 40));
        int items = trial < 10 ? trial / 5 : 1 + test_pick(150);
        eqnn__form f = random_form(c, def, kind, g, items);
        unsigned all = (1u << f.slots) - 1;
        for (int s = 0; s < f.slots; s++) pairs += f.map[s] == EQNN__PAIR && f.cols[s] > 0;
        messages += f.map[0] == EQNN__SOURCE && f.map[4] == EQNN__TARGET && !form_long && f.cols[0];
        good &= compare(&d, c, &f, 1u << (f.slots - 1), 0);
        good &= compare(&d, c, &f, all >> 1, 0);
        good &= compare(&d, c, &f, all, all);
        for (int k = 0; k < 2; k++) {
            unsigned want = 1 + (unsigned)test_pick((int)all);
            good &= compare(&d, c, &f, want, (unsigned)test_pick((int)all));
        }
        if (!good) printf("    trial %d\n", trial);
        for (int p = 0; p < def->paths && !good && kind == EQNN__COUPLE; p++) {
            const eqnn__couple_path *q = def->path + p;
            printf("    path d %d %d %d x %d %d y %d %d g %d %d w %d %d channels %d\n", q->d1,
                   q->d2, q->d3, q->x, q->xs, q->y, q->ys, q->g, q->gs, q->w, q->ws, q->channels);
        }
        free(def);
        eqnn_reset(c);
    }
    form_grid = 2048, form_long = 4, form_apart = 100000;
    CHECK_OK(c);
    CHECK(pairs > 0 || kind == EQNN__RADIAL); /* the hardest maps did occur */
    CHECK(messages > 0 || kind != EQNN__COUPLE);
    CHECK(eqnn__cuda_wait(&d, why, sizeof why));
    if (why[0]) printf("    %s\n", why);
    eqnn__cuda_end(&d);
}

TEST(couple_forms) { compare_kind(EQNN__COUPLE, 3 * CUDA_TRIALS); }
TEST(mix_forms) { compare_kind(EQNN__MIX, CUDA_TRIALS); }
TEST(poly_forms) { compare_kind(EQNN__POLY, 2 * CUDA_TRIALS); }
TEST(copy_forms) { compare_kind(EQNN__COPY, CUDA_TRIALS); }
TEST(radial_forms) { compare_kind(EQNN__RADIAL, CUDA_TRIALS); }

#endif
