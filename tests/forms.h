/* forms.h - the multilinear forms (sections 4 and 6): values against their definition, derivatives
   against differences, the same bits on any number of threads. Tests of kernels.c, which includes
   them because they need the implementation too. */

/* --- the definition: a form as a sum of terms, each a coefficient and an entry of every slot
   --- */

typedef struct definition {
    int paths, copies, map[64];
    eqnn__couple_path path[8];
    eqnn__mix_block block[4];
    eqnn__poly_record record[40];
    double C[8][7 * 7 * 7];
} definition;

typedef struct expected {
    const eqnn__form *f;
    const eqnn_real *v[EQNN__SLOTS], *t[EQNN__SLOTS];
    int tangents; /* of the gradients, where 1 */
    double *out[EQNN__SLOTS];
} expected;

/* Adds one term to the gradients; at[s] is the entry of slot s, -1: the slot is absent (a
   factor 1). */
static void add_term(expected *x, double c, const int *at)
{
    int n = x->f->slots;
    for (int s = 0; s < n; s++) {
        if (!x->out[s] || at[s] < 0) continue;
        for (int a = 0; a < n; a++) {
            double product = c;
            if (x->tangents ? a == s || at[a] < 0 || !x->t[a] : a > 0) continue;
            if (x->tangents) product *= (double)x->t[a][at[a]];
            for (int b = 0; b < n; b++)
                if (b != s && (!x->tangents || b != a) && at[b] >= 0)
                    product *= (double)x->v[b][at[b]];
            x->out[s][at[s]] += product;
        }
    }
}

static void couple_terms(expected *x, const eqnn__couple_path *p, const int *row)
{
    int hidden = x->f->cols[2], weights = x->f->cols[3], size = p->d1 * p->d2 * p->d3;
    for (int n = 0; n < size * p->channels; n++) {
        int u = n / size, i = n % size / (p->d2 * p->d3), j = n / p->d3 % p->d2, k = n % p->d3;
        double c = p->scale * p->C[n % size];
        int at[5] = { row[0] + p->x + i * p->xs + u, row[1] + p->y + j * p->ys, -1, -1,
                      row[4] + p->g + k * p->gs + u };
        int w = p->w + u * p->ws;
        if (p->w < 0 || !hidden) add_term(x, c, at);
        else if (!weights) at[2] = row[2] + w, add_term(x, c, at);
        else
            for (int h = 0; h < hidden; h++) {
                at[2] = row[2] + h, at[3] = h * weights + w;
                add_term(x, c, at);
            }
    }
}

static void mix_terms(expected *x, const eqnn__mix_block *m, const int *row)
{
    for (int n = 0; n < m->d * m->U * m->V; n++) {
        int i = n / (m->U * m->V), u = n / m->V % m->U, v = n % m->V;
        int at[3] = { row[0] + m->x + i * m->xs + u, row[1] + m->w + u * m->V + v,
                      row[2] + m->g + i * m->gs + v };
        add_term(x, m->scale, at);
    }
}

static void all_terms(expected *x, const definition *d)
{
    const eqnn__form *f = x->f;
    for (int e = 0; e < f->items; e++) {
        int row[EQNN__SLOTS], at[EQNN__SLOTS];
        for (int s = 0; s < f->slots; s++) row[s] = eqnn__form_row(f, s, e) * f->cols[s];
        for (int p = 0; p < d->paths && f->kind == EQNN__COUPLE; p++)
            couple_terms(x, d->path + p, row);
        for (int p = 0; p < d->paths && f->kind == EQNN__MIX; p++) mix_terms(x, d->block + p, row);
        for (int p = 0; p < d->paths * d->copies && f->kind == EQNN__POLY; p++) {
            const eqnn__poly_record *r = &d->record[p / d->copies];
            for (int s = 0; s < f->slots; s++)
                at[s] = f->cols[s] ? row[s] + r->col[s] * d->copies + p % d->copies : -1;
            add_term(x, r->c, at);
        }
        for (int k = 0; k < d->paths && f->kind == EQNN__COPY; k++) {
            at[0] = row[0] + k, at[1] = row[1] + d->map[k], at[2] = row[2] + k;
            add_term(x, 1, at);
        }
    }
}

/* --- random forms --- */

static void random_paths(definition *d, int *cols, int small)
{
    static const int channels[] = { 1, 3, 8, 16, 20, 45 };
    int x = 0, y = 0, w = 0, g = 0;
    d->paths = 1 + test_pick(small ? 3 : 6);
    for (int i = 0; i < d->paths; i++) {
        eqnn__couple_path *p = d->path + i;
        memset(p, 0, sizeof *p);
        p->channels = small ? 1 + test_pick(3) : channels[test_pick(6)];
        p->d1 = 1 + test_pick(small ? 3 : 7), p->d2 = 1 + test_pick(3);
        p->d3 = 1 + test_pick(small ? 3 : 7);
        if (!test_pick(3)) p->d2 = 1, p->d3 = p->d1; /* diagonal: coupling with a scalar */
        p->xs = p->gs = p->channels, p->ys = 1, p->ws = test_pick(5) ? 1 : test_pick(3),
        p->scale = 0.5 + test_pick(2);
        for (int n = 0; n < p->d1 * p->d2 * p->d3; n++)
            d->C[i][n] = p->d2 == 1 && p->d1 == p->d3 && n % (p->d1 + 1) ? 0
                         : test_pick(3)                                       ? test_number()
                                                                         : 0;
        p->C = d->C[i];
        p->x = x, p->y = y, p->w = test_pick(6) ? w : -1, p->g = g;
        if (i && !test_pick(3)) { /* the same coupling of the same y; other weights and channels */
            int weight = p->w;
            *p = d->path[i - 1];
            p->w = weight, p->g = g;
        }
        x += p->d1 * p->channels, y += p->d2, g += p->d3 * p->channels;
        if (p->w >= 0) w += (p->channels - 1) * p->ws + 1;
    }
    cols[0] = x + test_pick(2), cols[1] = y + test_pick(2), cols[4] = g + test_pick(2);
    cols[3] = test_pick(3) ? w + 1 : 0;
    cols[2] = cols[3] ? 1 + test_pick(5) : test_pick(4) ? w + 1 : 0;
}

static void random_blocks(definition *d, int *cols, int small)
{
    int x = 0, w = 0, g = 0;
    d->paths = 1 + test_pick(3);
    for (int i = 0; i < d->paths; i++) {
        eqnn__mix_block *m = d->block + i;
        m->d = 1 + test_pick(3), m->U = 1 + test_pick(small ? 3 : 40),
        m->V = 1 + test_pick(small ? 3 : 40),
        m->scale = 1.5;
        m->x = x, m->xs = m->U, m->w = w, m->g = g, m->gs = m->V;
        x += m->d * m->U, w += m->U * m->V;
        if (i && m->d <= d->block[i - 1].d && m->V == d->block[i - 1].V) m->g = d->block[i - 1].g;
        else g += m->d * m->V;
    }
    cols[0] = x, cols[1] = w, cols[2] = g + test_pick(2);
}

static int random_map(int slot, int slots, const eqnn_graph *g)
{
    if (!g) return slot && !test_pick(4) ? EQNN__ONE : EQNN__EACH;
    if (slot == slots - 1) return test_pick(4) ? EQNN__TARGET : EQNN__EACH;
    if (slot == 0) return test_pick(4) ? EQNN__SOURCE : test_pick(2) ? EQNN__TARGET : EQNN__EACH;
    if (slot == 2 && g->pairs && test_pick(2)) return EQNN__PAIR;
    return test_pick(3) ? EQNN__EACH : EQNN__ONE;
}

static eqnn__form random_form(eqnn_ctx *c, definition *d, int kind, const eqnn_graph *g, int items,
                              int small)
{
    eqnn__form f;
    memset(&f, 0, sizeof f);
    memset(d, 0, sizeof *d);
    f.kind = kind, f.graph = g, f.items = g ? g->edges : items;
    f.slots = kind == EQNN__COUPLE ? 5 : kind == EQNN__POLY ? 2 + test_pick(3) : 3;
    for (int s = 0; s < f.slots; s++) f.map[s] = random_map(s, f.slots, g);
    if (kind == EQNN__COUPLE) {
        random_paths(d, f.cols, small);
        f.plan = eqnn__couple_plan(c, d->path, d->paths);
        f.map[3] = EQNN__ONE;
    } else if (kind == EQNN__MIX) {
        random_blocks(d, f.cols, small);
        f.map[1] = test_pick(3) ? EQNN__ONE : EQNN__EACH;
        f.plan = eqnn__mix_plan(c, d->block, d->paths);
    } else if (kind == EQNN__POLY) {
        int wide = !test_pick(3); /* neighbouring columns, which are packed as a whole */
        static const int copies[] = { 1, 1, 1, 2, 15, 16, 64, 90 };
        d->copies = copies[test_pick(8)];
        d->paths = 1 + test_pick(40);
        for (int s = 0; s < f.slots; s++)
            f.cols[s] = s && s < f.slots - 1 && !test_pick(4) ? 0 : 1 + test_pick(wide ? 40 : 6);
        for (int r = 0; r < d->paths; r++) {
            d->record[r].c = test_number();
            for (int s = 0; s < f.slots; s++)
                d->record[r].col[s] = !f.cols[s] ? 0
                                      : wide     ? (r + d->paths) % f.cols[s]
                                                 : test_pick(f.cols[s]);
        }
        f.plan = eqnn__poly_plan(c, f.slots, d->copies, d->record, d->paths);
        for (int s = 0; s < f.slots; s++) f.cols[s] *= d->copies;
    } else {
        d->paths = 1 + test_pick(small ? 6 : 64);
        f.cols[0] = f.cols[2] = d->paths, f.cols[1] = 1 + test_pick(9);
        for (int k = 0; k < d->paths; k++)
            d->map[k] = test_pick(2) && k ? (d->map[k - 1] + 1) % f.cols[1] : test_pick(f.cols[1]);
        f.plan = eqnn__copy_plan(c, d->map, d->paths);
    }
    for (int s = 0; s < f.slots; s++) {
        int m = f.map[s];
        f.rows[s] = m == EQNN__ONE      ? 1
                    : m == EQNN__SOURCE ? g->sources
                    : m == EQNN__TARGET ? g->targets
                    : m == EQNN__PAIR   ? g->pairs
                                        : f.items;
    }
    if (kind == EQNN__COUPLE) f.rows[3] = f.cols[2];
    return f;
}

/* Molecules of a few atoms, each pair of atoms joined with some chance; kind 0: no graph, 1: edges
   one way only, 2: both ways, 3: both ways and many examples (blocks). */
static const eqnn_graph *random_graph(eqnn_ctx *c, int kind, int atoms)
{
    int source[800], target[800], example[64], n = 0, examples = kind == 3 ? 4 : 1;
    eqnn_graph_opts opts;
    if (!kind) return NULL;
    memset(&opts, 0, sizeof opts);
    for (int i = 0; i < examples * atoms; i++) {
        example[i] = i / atoms;
        for (int j = i / atoms * atoms; j < i; j++) {
            if (!test_pick(4)) continue;
            source[n] = i, target[n++] = j;
            if (kind > 1) source[n] = j, target[n++] = i;
        }
    }
    opts.sources = opts.targets = examples * atoms;
    opts.example = example, opts.examples = examples;
    return eqnn_graph_make(c, n, source, target, &opts);
}

/* --- values --- */

static void check_value(eqnn_ctx *c, const eqnn__form *f, const definition *d, unsigned want,
                        unsigned tangents)
{
    eqnn_tensor *v[EQNN__SLOTS] = { 0 }, *t[EQNN__SLOTS] = { 0 }, *out[EQNN__SLOTS];
    expected x;
    memset(&x, 0, sizeof x);
    for (int s = 0; s < f->slots; s++) {
        if (!f->cols[s]) want &= ~(1u << s), tangents &= ~(1u << s);
        v[s] = test_normal(c, f->rows[s], f->cols[s]);
        if (tangents >> s & 1) t[s] = test_normal(c, f->rows[s], f->cols[s]);
        x.v[s] = eqnn_data(v[s]), x.t[s] = t[s] ? eqnn_data(t[s]) : NULL;
        if (want >> s & 1)
            x.out[s] =
                (double *)calloc((size_t)f->rows[s] * (size_t)f->cols[s] + 1, sizeof(double));
    }
    x.f = f, x.tangents = tangents != 0;
    all_terms(&x, d);
    eqnn__form_apply(c, f, v, tangents ? t : NULL, want, out);
    for (int s = 0; s < f->slots; s++) {
        double error = 0, largest = 1e-3;
        int n = f->rows[s] * f->cols[s];
        if (!(want >> s & 1)) continue;
        for (int i = 0; i < n && out[s]; i++) {
            error = fmax(error, fabs((double)eqnn_data(out[s])[i] - x.out[s][i]));
            largest = fmax(largest, fabs(x.out[s][i]));
        }
        if (!CHECK(out[s] != NULL) || !CHECK(error / largest < test_eps(1e-12, 2e-4)))
            printf("    kind %d slot %d want %x tangents %x error %g\n", f->kind, s, want, tangents,
                   error / largest);
        free(x.out[s]);
    }
}

static void check_values(int kind)
{
    eqnn_ctx *c = test_context();
    definition d;
    test_choices = 1;
    for (int trial = 0; trial < 60; trial++) {
        const eqnn_graph *g = random_graph(c, trial % 4, 2 + test_pick(10));
        int items = trial < 8 ? trial / 4 : 1 + test_pick(150);
        eqnn__form f = random_form(c, &d, kind, g, items, 0);
        unsigned all = (1u << f.slots) - 1;
        check_value(c, &f, &d, 1u << (f.slots - 1), 0);
        check_value(c, &f, &d, all >> 1, 0);
        check_value(c, &f, &d, all, all);
        check_value(c, &f, &d, 1 + (unsigned)test_pick((int)all), (unsigned)test_pick((int)all));
        eqnn_reset(c);
    }
    CHECK_OK(c);
}

TEST(couple_values) { check_values(EQNN__COUPLE); }
TEST(mix_values) { check_values(EQNN__MIX); }
TEST(poly_values) { check_values(EQNN__POLY); }
TEST(copy_values) { check_values(EQNN__COPY); }

/* --- derivatives of first to third order --- */

/* The forward value of the form of the present slots x[], or (level 1, 2) the gradient of a
   function of it, or the gradient of a function of that: all one row after another. */
typedef struct chain { eqnn__form f; int level; } chain;

static eqnn_tensor *as_row(eqnn_tensor *x)
{
    return eqnn_reshape(x, 1, eqnn_rows(x) * eqnn_cols(x));
}

static eqnn_tensor *form_chain(eqnn_tensor *const *x, int n, void *user)
{
    const chain *k = (const chain *)user;
    eqnn_tensor *v[EQNN__SLOTS] = { 0 }, *out[EQNN__SLOTS], *dx[EQNN__SLOTS], *y;
    int at = 0, last = k->f.slots - 1;
    for (int s = 0; s < last; s++)
        if (k->f.cols[s]) v[s] = x[at++];
    eqnn__form_apply(eqnn_context(x[0]), &k->f, v, NULL, 1u << last, out);
    y = out[last];
    for (int level = 0; level < k->level; level++) {
        y = eqnn_sum(eqnn_sin(y));
        if (!eqnn_grads(y, x, n, dx)) return NULL;
        y = as_row(dx[0]);
        for (int i = 1; i < n; i++) y = eqnn_concat(y, as_row(dx[i]));
    }
    return y;
}

static void check_chain(int kind)
{
    eqnn_ctx *c = test_context();
    definition d;
    test_choices = 7;
    for (int trial = 0; trial < 12; trial++) {
        const eqnn_graph *g = random_graph(c, trial % 4, 2 + test_pick(2));
        chain k;
        eqnn_tensor *x[EQNN__SLOTS];
        int n = 0;
        k.f = random_form(c, &d, kind, g, 1 + test_pick(3), 1);
        for (int s = 0; s < k.f.slots - 1; s++)
            if (k.f.cols[s])
                x[n++] = eqnn_detach(eqnn_scale(test_normal(c, k.f.rows[s], k.f.cols[s]), 0.7));
        for (k.level = 0; k.level < 3; k.level++) CHECK_DERIVATIVES_OF(form_chain, x, n, &k, 1);
        eqnn_reset(c);
    }
    CHECK_OK(c);
}

TEST(couple_derivatives) { check_chain(EQNN__COUPLE); }
TEST(mix_derivatives) { check_chain(EQNN__MIX); }
TEST(poly_derivatives) { check_chain(EQNN__POLY); }
TEST(copy_derivatives) { check_chain(EQNN__COPY); }

/* --- threads and lanes --- */

static double largest_difference(const eqnn_tensor *a, const eqnn_tensor *b, double *bits)
{
    double worst = 0;
    size_t n = (size_t)eqnn_rows(a) * (size_t)eqnn_cols(a);
    for (size_t i = 0; i < n; i++)
        worst = fmax(worst, fabs((double)(eqnn_data(a)[i] - eqnn_data(b)[i])));
    if (memcmp(eqnn_data(a), eqnn_data(b), n * sizeof(eqnn_real))) *bits += 1;
    return worst;
}

/* All outputs of the same random form on contexts with other threads and lanes. */
static void compare_contexts(int kind, int trial, eqnn_ctx *const c[3], double *bits, double *lanes)
{
    eqnn_tensor *out[3][EQNN__SLOTS];
    eqnn__form f;
    definition d;
    int serial = test_serial;
    for (int i = 0; i < 3; i++) {
        const eqnn_graph *g;
        eqnn_tensor *v[EQNN__SLOTS] = { 0 }, *t[EQNN__SLOTS] = { 0 };
        test_choices = (uint64_t)trial + 100;
        test_serial = serial;
        g = random_graph(c[i], trial % 4, 12);
        f = random_form(c[i], &d, kind, g, 300, 0);
        for (int s = 0; s < f.slots; s++) {
            v[s] = test_normal(c[i], f.rows[s], f.cols[s]);
            t[s] = f.cols[s] ? test_normal(c[i], f.rows[s], f.cols[s]) : NULL;
        }
        eqnn__form_apply(c[i], &f, v, trial & 4 ? t : NULL, (1u << f.slots) - 1, out[i]);
    }
    for (int s = 0; s < f.slots; s++) {
        double ignored = 0;
        if (!f.cols[s] || !CHECK(out[0][s] && out[1][s] && out[2][s])) continue;
        largest_difference(out[0][s], out[1][s], bits);
        *lanes = fmax(*lanes, largest_difference(out[0][s], out[2][s], &ignored));
    }
}

TEST(same_bits_with_any_threads)
{
    eqnn_ctx *c[3];
    double bits = 0, lanes = 0;
    for (int i = 0; i < 3; i++) {
        eqnn_opts o = test_opts();
        o.threads = i == 1 ? 5 : 1;
        if (i == 2) o.lanes = 4;
        c[i] = test_contexts[test_context_count++] = eqnn_make(&o);
    }
    for (int trial = 0; trial < 32; trial++) {
        for (int kind = EQNN__COUPLE; kind <= EQNN__COPY; kind++)
            compare_contexts(kind, trial, c, &bits, &lanes);
        for (int i = 0; i < 3; i++) eqnn_reset(c[i]);
    }
    CHECK_NEAR(bits, 0, 0);
    CHECK_NEAR(lanes, 0, test_eps(1e-9, 2e-2));
    for (int i = 0; i < 3; i++) CHECK_OK(c[i]);
}
