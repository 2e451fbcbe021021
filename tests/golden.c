/* golden.c - our numbers beside those of the reference implementations

      ./golden [-q] folder-or-file ...      -q prints only what failed

   Every .safetensors file is a set of cases; its kind is the beginning of its name, its metadata
   (JSON) say how each case is set up, "grad_NAME" is d sum(cotangent * out) / d NAME. A line a
   case with the largest error |ours - theirs| / max(1, max |theirs|); at the end "N passed, N
   failed, N skipped". Every entry of a file must belong to a case: what is not known fails. */
#include "test.h"
#include "json.h"
#include "../eqnn_data.h"
#include "../eqnn_groups.h"
#include <dirent.h>

typedef struct golden {
    const char *path;
    char file[128];          /* name without folder and ending                       */
    char title[128];         /* the case                                             */
    char worst_entry[128];   /* where the largest error was                          */
    double worst;
    eqnn_ctx *files, *c;     /* of the open file; of the case                        */
    eqnn_file *f, *f2;       /* a second file with gradients, or NULL                */
    char *used, *used2;      /* per entry: belongs to a case                         */
    int cases;
} golden;

static int golden_quiet, golden_passed, golden_failed, golden_skipped;
static const char *const modes[] = { "uvw",  "uvu",   "uvv",  "uuw", "uuu",
                                     "uvuv", "uvu<v", "u<vw", NULL };
static const char *const path_kinds[] = { "element", "path", "none", NULL };
static const char *const irrep_kinds[] = { "component", "norm", "none", NULL };
static const char *const harmonics_kinds[] = { "component", "integral", "norm", NULL };
static const char *const bases[] = { "gaussian", "cosine", "smooth_finite",
                                     "fourier",  "bessel", NULL };

static int find_word(golden *g, const char *const *list, const char *word)
{
    for (int i = 0; list[i]; i++)
        if (word && !strcmp(list[i], word)) return i;
    eqnn_fail(g->c, "golden: unknown setting \"%s\"", word ? word : "NULL");
    return 0;
}

/* ---- entries -------------------------------------------------------------------------------- */

static const eqnn_entry *find_entry(golden *g, const char *name, eqnn_file **f)
{
    for (int k = 0; k < 2; k++) {
        char *used = k ? g->used2 : g->used;
        *f = k ? g->f2 : g->f;
        for (int i = 0; *f && i < eqnn_file_count(*f); i++) {
            if (strcmp(eqnn_file_entry(*f, i)->name, name)) continue;
            used[i] = 1;
            return eqnn_file_entry(*f, i);
        }
    }
    return NULL;
}

/* Entries are named "case/NAME", or "NAME" in a file with one case only. */
static const char *full_name(golden *g, const char *name, char out[256])
{
    snprintf(out, 256, "%.100s%s%.150s", g->title, g->title[0] ? "/" : "", name);
    return out;
}

static int has(golden *g, const char *name)
{
    char full[256];
    eqnn_file *f;
    return find_entry(g, full_name(g, name, full), &f) != NULL;
}

/* The numbers of an entry (to be freed), NULL and an error when there is none. */
static double *numbers(golden *g, const char *name, size_t *count)
{
    char full[256];
    eqnn_file *f;
    const eqnn_entry *e = find_entry(g, full_name(g, name, full), &f);
    double *v = e ? (double *)malloc((e->count + 1) * sizeof(double)) : NULL;
    *count = 0;
    if (!v || !eqnn_file_read(f, e, v)) {
        eqnn_fail(g->c, "golden: %s: cannot read \"%s\"", g->file, full);
        free(v);
        return NULL;
    }
    *count = e->count;
    return v;
}

static int *integers(golden *g, const char *name, int *count)
{
    size_t n;
    double *v = numbers(g, name, &n);
    int *out = (int *)malloc((n + 1) * sizeof(int));
    for (size_t i = 0; v && out && i < n; i++) out[i] = (int)v[i];
    *count = v && out ? (int)n : 0;
    free(v);
    return out;
}

/* As a matrix; cols 0: the last side of its shape. Vectors are rows. */
static eqnn_tensor *matrix(golden *g, const char *name, int cols)
{
    char full[256];
    eqnn_file *f;
    size_t n;
    double *v = numbers(g, name, &n);
    const eqnn_entry *e = find_entry(g, full_name(g, name, full), &f);
    eqnn_tensor *x = NULL;
    if (v && cols == 0) cols = e->dims ? (int)e->shape[e->dims - 1] : 1;
    if (v && cols > 0) x = eqnn_from_double(g->c, (int)(n / (size_t)cols), cols, v);
    free(v);
    return x;
}

static eqnn_tensor *column(golden *g, const char *name) { return matrix(g, name, 1); }

/* ---- comparing ------------------------------------------------------------------------------ */

static void worse(golden *g, const char *entry, double error)
{
    if (error <= g->worst && !isnan(error)) return; /* a NaN is the worst of all */
    if (isnan(g->worst)) return;
    g->worst = error;
    snprintf(g->worst_entry, sizeof g->worst_entry, "%.127s", entry);
}

static void compare_numbers(golden *g, const char *entry, const double *ours, const double *theirs,
                            size_t n)
{
    double size = 1, error = 0;
    for (size_t i = 0; i < n; i++) {
        double d = fabs(ours[i] - theirs[i]);
        if (!(d <= error)) error = d;
        size = fmax(size, fabs(theirs[i]));
        if (!(d < INFINITY)) error = NAN;
        if (isnan(error)) break;
    }
    worse(g, entry, error / size);
}

/* A tensor in e3nn's order against the entry of that name. */
static void compare(golden *g, const char *name, const eqnn_tensor *x)
{
    size_t n, m = (size_t)eqnn_rows(x) * (size_t)eqnn_cols(x);
    double *theirs = numbers(g, name, &n), *ours = (double *)malloc((m + 1) * sizeof(double));
    const eqnn_real *data = eqnn_data(x);
    if (theirs && ours && x && n == m) {
        for (size_t i = 0; i < m; i++) ours[i] = (double)data[i];
        compare_numbers(g, name, ours, theirs, n);
    } else {
        eqnn_fail(g->c, "golden: \"%s\": ours has %d numbers, theirs %d", name, (int)m, (int)n);
    }
    free(theirs);
    free(ours);
}

/* Side k of an entry's shape (from the end when negative); 0 when there is none. Does not mark it
   as used: who asks for a shape has not compared anything. */
static int side_of(golden *g, const char *name, int k)
{
    char full[256];
    const eqnn_entry *e = eqnn_file_find(g->f, full_name(g, name, full));
    if (e && k < 0) k += e->dims;
    return e && k >= 0 && k < e->dims ? (int)e->shape[k] : 0;
}

/* A number of the file's metadata. */
static int meta_int(golden *g, const char *key, int missing)
{
    const char *text = eqnn_file_meta(g->f, key);
    return text && atoi(text) > 0 ? atoi(text) : missing;
}

/* The k-th of the different words before the first '/' of the entries' names. */
static int title_at(golden *g, int k, char out[128])
{
    for (int i = 0; i < eqnn_file_count(g->f); i++) {
        const char *name = eqnn_file_entry(g->f, i)->name;
        size_t n = strcspn(name, "/");
        int seen = 0;
        if (!name[n] || n > 100) continue;
        for (int j = 0; j < i && !seen; j++)
            seen = !strncmp(eqnn_file_entry(g->f, j)->name, name, n + 1);
        if (seen || k-- > 0) continue;
        snprintf(out, 128, "%.*s", (int)n, name);
        return 1;
    }
    return 0;
}

/* Entries "TITLE/w.<before>N<behind>" for N = first, ...: how many. */
static int numbered_weights(golden *g, const char *before, int first, const char *behind)
{
    char name[160], full[256];
    for (int n = 0;; n++) {
        snprintf(name, sizeof name, "w.%s%d%s", before, first + n, behind);
        if (!eqnn_file_find(g->f, full_name(g, name, full))) return n;
    }
}

static void compare_value(golden *g, const char *name, double ours)
{
    size_t n;
    double *theirs = numbers(g, name, &n);
    if (theirs && n == 1) compare_numbers(g, name, &ours, theirs, 1);
    free(theirs);
}

/* Columns first..first+count of [rows, cols]; row by row when each_row. */
static void compare_columns(golden *g, const char *entry, const double *ours, const double *theirs,
                            int rows, int cols, int first, int count, int each_row)
{
    size_t n = (size_t)rows * (size_t)count;
    double *a = (double *)malloc((n + 1) * sizeof(double)),
           *b = (double *)malloc((n + 1) * sizeof(double));
    for (int r = 0; a && b && r < rows; r++) {
        size_t from = (size_t)r * (size_t)cols + (size_t)first, to = (size_t)r * (size_t)count;
        memcpy(a + to, ours + from, (size_t)count * sizeof(double));
        memcpy(b + to, theirs + from, (size_t)count * sizeof(double));
        if (each_row) compare_numbers(g, entry, a + to, b + to, (size_t)count);
    }
    if (a && b && !each_row) compare_numbers(g, entry, a, b, n);
    free(a);
    free(b);
}

/* ---- cases ---------------------------------------------------------------------------------- */

static void begin(golden *g, const char *title)
{
    eqnn_opts o = test_opts();
    snprintf(g->title, sizeof g->title, "%s", title);
    g->worst = 0;
    g->worst_entry[0] = 0;
    g->c = eqnn_make(&o);
    if (!g->c) { printf("no memory\n"); exit(1); }
}

static void end_within(golden *g, const char *title, double in_double, double in_float)
{
    double bound = test_eps(in_double, in_float);
    const char *error = eqnn_error(g->c);
    int good = !error && g->worst <= bound;
    g->cases++;
    if (good) golden_passed++;
    else golden_failed++;
    if (!good || !golden_quiet) {
        printf("%s %-24s %-34s %9.2e", good ? "ok    " : "FAILED", g->file, title, g->worst);
        if (error) printf("  %s", error);
        else if (!good) printf("  > %.0e in %s", bound, g->worst_entry);
        printf("\n");
    }
    eqnn_free(g->c);
    g->c = NULL;
}

static void end(golden *g) { end_within(g, g->title[0] ? g->title : "-", 1e-10, 1e-5); }

static void skip(golden *g, const char *title, const char *why)
{
    golden_skipped++;
    g->cases++;
    if (!golden_quiet) printf("skip   %-24s %-34s %s\n", g->file, title, why);
}

/* Marks the entries that begin with a prefix as belonging to a case. */
static int mark(golden *g, const char *prefix)
{
    int found = 0;
    for (int i = 0; i < eqnn_file_count(g->f); i++) {
        if (strncmp(eqnn_file_entry(g->f, i)->name, prefix, strlen(prefix))) continue;
        g->used[i] = 1;
        found++;
    }
    return found;
}

static json *meta(golden *g, const char *key)
{
    json *j = json_parse(eqnn_file_meta(g->f, key));
    if (!j) eqnn_fail(g->c, "golden: %s: no settings \"%s\"", g->file, key);
    return j;
}

/* A metadata value that is text, with or without JSON's quotes. */
static const char *meta_text(golden *g, const char *key, char out[512])
{
    const char *raw = eqnn_file_meta(g->f, key);
    json *j = json_parse(raw);
    snprintf(out, 512, "%s", json_text(j, raw ? raw : ""));
    json_free(j);
    return out;
}

/* Weights from entries "<prefix><name>", for every parameter "<scope>.<name>" of the context. */
static void set_weights(golden *g, const char *prefix, const char *scope)
{
    size_t skip_scope = strlen(scope) + 1;
    for (int i = 0; i < eqnn_parameter_count(g->c); i++) {
        char entry[256];
        size_t n;
        eqnn_tensor *w = eqnn_parameter_at(g->c, i);
        snprintf(entry, sizeof entry, "%s%s", prefix, eqnn_parameter_name(g->c, i) + skip_scope);
        double *v = numbers(g, entry, &n);
        if (v && n != (size_t)eqnn_rows(w) * (size_t)eqnn_cols(w))
            eqnn_fail(g->c, "golden: \"%s\" has %d numbers, ours [%d,%d]", entry, (int)n,
                      eqnn_rows(w), eqnn_cols(w));
        else if (v) eqnn_set(w, v);
        free(v);
    }
}

static void compare_gradients(golden *g, const char *prefix, const char *scope)
{
    size_t skip_scope = strlen(scope) + 1;
    for (int i = 0; i < eqnn_parameter_count(g->c); i++) {
        char entry[256];
        snprintf(entry, sizeof entry, "%s%s", prefix, eqnn_parameter_name(g->c, i) + skip_scope);
        compare(g, entry, eqnn_gradient(eqnn_parameter_at(g->c, i)));
    }
}

/* d sum(cotangent * out) / d x against grad_NAME, for each of n inputs that has one. */
static void compare_inputs(golden *g, eqnn_tensor *out, eqnn_tensor *const *x,
                           const char *const *names, int n)
{
    eqnn_tensor *y = eqnn_sum(eqnn_mul(out, matrix(g, "cotangent", 0)));
    eqnn_tensor *dx[8] = { NULL };
    if (!eqnn_grads(y, x, n, dx)) return;
    for (int i = 0; i < n; i++) {
        char entry[256];
        snprintf(entry, sizeof entry, "grad_%s", names[i]);
        compare(g, entry, dx[i]);
    }
}

/* ---- rotations ------------------------------------------------------------------------------ */

static void wigner_3j(golden *g)
{
    for (int i = 0; i < eqnn_file_count(g->f); i++) {
        const char *name = eqnn_file_entry(g->f, i)->name;
        int a, b, l;
        if (sscanf(name, "w3j/%d_%d_%d", &a, &b, &l) != 3) continue;
        begin(g, "");
        size_t n, m = (size_t)(2 * a + 1) * (size_t)(2 * b + 1) * (size_t)(2 * l + 1);
        double *theirs = numbers(g, name, &n), *ours = (double *)calloc(m, sizeof(double));
        if (n != m || !eqnn_wigner_3j(a, b, l, ours))
            eqnn_fail(g->c, "golden: no 3j tensor for %s", name);
        else compare_numbers(g, name, ours, theirs, n);
        free(theirs);
        free(ours);
        end_within(g, name, 1e-10, 1e-10); /* tables are made in double */
    }
}

/* Angles, quaternion and axis of rotations R [n,9]. Quaternions have a free sign. */
static void rotations(golden *g)
{
    size_t n, n3;
    double *R = numbers(g, "R", &n), *al = numbers(g, "alpha", &n3), *be = numbers(g, "beta", &n3);
    double *ga = numbers(g, "gamma", &n3), *q = numbers(g, "quaternion", &n3);
    for (size_t i = 0; R && al && be && ga && q && i < n / 9; i++) {
        double M[9], p[4], a, b, c, sign;
        eqnn_rotation_angles(al[i], be[i], ga[i], M);
        compare_numbers(g, "R of angles", M, R + 9 * i, 9);
        eqnn_angles_rotation(R + 9 * i, &a, &b, &c);
        eqnn_rotation_angles(a, b, c, M);
        compare_numbers(g, "angles of R", M, R + 9 * i, 9);
        eqnn_rotation_quaternion(q + 4 * i, M);
        compare_numbers(g, "R of quaternion", M, R + 9 * i, 9);
        eqnn_quaternion_rotation(R + 9 * i, p);
        sign = p[0] * q[4 * i] + p[1] * q[4 * i + 1] + p[2] * q[4 * i + 2] + p[3] * q[4 * i + 3] < 0
                   ? -1
                   : 1;
        for (int k = 0; k < 4; k++) p[k] *= sign;
        compare_numbers(g, "quaternion of R", p, q + 4 * i, 4);
    }
    free(R); free(al); free(be); free(ga); free(q);
}

/* Their angle is an arc cosine: exact to 1e-8 at best near a half turn. */
static void axes(golden *g)
{
    size_t n, m, first;
    double *R = numbers(g, "R", &n), *axis = numbers(g, "axis_from3", &m),
           *angle = numbers(g, "angle_from3", &m);
    first = n / 9 - m;
    for (size_t i = 0; R && axis && angle && i < m; i++) {
        double M[9], a[3], t;
        eqnn_axis_rotation(R + 9 * (first + i), a, &t);
        compare_numbers(g, "angle of R", &t, angle + i, 1);
        compare_numbers(g, "axis of R", a, axis + 3 * i, 3);
        eqnn_rotation_axis(axis + 3 * i, angle[i], M);
        compare_numbers(g, "R of axis", M, R + 9 * (first + i), 9);
    }
    free(R); free(axis); free(angle);
}

static void wigner_D_of(golden *g, int l)
{
    char name[32];
    size_t n, m, d = (size_t)(2 * l + 1) * (size_t)(2 * l + 1);
    double *R = numbers(g, "R", &n), *ours = (double *)calloc(3 * d, sizeof(double)), *theirs;
    snprintf(name, sizeof name, "D/%d", l);
    theirs = numbers(g, name, &m);
    for (size_t i = 0; R && theirs && m == n / 9 * d && i < n / 9; i++) {
        eqnn_wigner_D(l, R + 9 * i, ours);
        compare_numbers(g, name, ours, theirs + i * d, d);
    }
    free(theirs);
    snprintf(name, sizeof name, "generators/%d", l);
    theirs = numbers(g, name, &m);
    eqnn_generators(l, ours);
    if (theirs && m == 3 * d) compare_numbers(g, name, ours, theirs, m);
    else eqnn_fail(g->c, "golden: %s has %d numbers", name, (int)m);
    free(theirs); free(R); free(ours);
}

/* Our column of each of e3nn's: block [channels][2l+1] there, [2l+1][channels] here. */
static int *our_columns(const eqnn_irreps *a)
{
    int *map = (int *)calloc((size_t)a->cols + 1, sizeof(int)), e = 0;
    for (int b = 0; b < a->blocks; b++)
        for (int u = 0; u < a->block[b].copies; u++)
            for (int m = 0; m < a->block[b].type->dim; m++)
                map[e++] = a->block[b].start + m * a->block[b].copies + u;
    return map;
}

static void irreps_D(golden *g)
{
    char text[512];
    size_t n, m;
    const eqnn_irreps *a = eqnn_irreps_make(g->c, meta_text(g, "irreps_D", text));
    double *R = numbers(g, "irreps_D_matrix", &m), *theirs = numbers(g, "irreps_D", &n);
    if (a && R && theirs) {
        int d = a->cols, *map = our_columns(a);
        double *D = (double *)calloc((size_t)d * (size_t)d, sizeof(double));
        double *E = (double *)calloc((size_t)d * (size_t)d, sizeof(double));
        for (size_t k = 0; k < m / 9; k++) {
            eqnn_irreps_D(a, R + 9 * k, D);
            for (int i = 0; i < d; i++)
                for (int j = 0; j < d; j++) E[i * d + j] = D[map[i] * d + map[j]];
            compare_numbers(g, "irreps_D", E, theirs + k * (size_t)d * (size_t)d,
                            (size_t)d * (size_t)d);
        }
        free(map); free(D); free(E);
    }
    has(g, "parity_k"); /* 1 where the matrix is improper, which it says itself */
    free(R); free(theirs);
}

static void wigner_D(golden *g)
{
    char name[32];
    begin(g, "");
    rotations(g);
    end_within(g, "rotations", 1e-10, 1e-10);
    begin(g, "");
    axes(g);
    end_within(g, "axes", 1e-7, 1e-7);
    for (int l = 0; l < 100; l++) {
        eqnn_file *f;
        snprintf(name, sizeof name, "D/%d", l);
        if (!find_entry(g, name, &f)) break;
        begin(g, "");
        wigner_D_of(g, l);
        end_within(g, name, 1e-10, 1e-10);
    }
    begin(g, "");
    irreps_D(g);
    end_within(g, "irreps_D", 1e-10, 1e-10);
}

/* ---- spherical harmonics -------------------------------------------------------------------- */

static int lmax_of(int columns)
{
    int l = 0;
    while ((l + 1) * (l + 1) < columns) l++;
    return l;
}

/* "Y/KIND/normalize_B" or "Y/normalize_B" (component); 0 when it is neither. */
static int harmonics_settings(golden *g, const char *name, eqnn_harmonics_opts *o)
{
    char kind[32] = "component";
    memset(o, 0, sizeof *o);
    if (sscanf(name, "%*[dY]/%31[a-z]/normalize_%d", kind, &o->normalize) != 2) {
        strcpy(kind, "component");
        if (sscanf(name, "%*[dY]/normalize_%d", &o->normalize) != 1) return 0;
    }
    o->kind = (eqnn_harmonics_kind)find_word(g, harmonics_kinds, kind);
    return 1;
}

static void to_double(const eqnn_tensor *x, double *out)
{
    for (int i = 0; i < eqnn_rows(x) * eqnn_cols(x); i++) out[i] = (double)eqnn_data(x)[i];
}

/* Values [n, (lmax+1)^2], each degree compared by itself since degrees differ in size. */
static void harmonics_values(golden *g, const char *name, int each_row)
{
    eqnn_harmonics_opts o;
    eqnn_tensor *r = matrix(g, "x", 3);
    size_t n;
    double *theirs = numbers(g, name, &n);
    int rows = eqnn_rows(r), cols = rows ? (int)n / rows : 0;
    harmonics_settings(g, name, &o);
    eqnn_tensor *Y = eqnn_spherical_harmonics(eqnn_from_e3nn(r, eqnn_irreps_make(g->c, "1x1o")),
                                              lmax_of(cols), &o);
    double *ours = (double *)calloc(n + 1, sizeof(double));
    if (theirs && Y && eqnn_cols(Y) == cols) {
        to_double(eqnn_to_e3nn(Y), ours);
        for (int l = 0; l <= lmax_of(cols); l++)
            compare_columns(g, name, ours, theirs, rows, cols, l * l, 2 * l + 1, each_row);
    } else {
        eqnn_fail(g->c, "golden: %s is not of degrees 0 to some lmax", name);
    }
    free(theirs); free(ours);
}

/* dY[n, component, xyz], one pullback a component. Vectors shorter than 1e-12 have no direction:
   the reference's gradient is that of x / 1e-12 there (1e12), ours is zero where normalised. */
static void harmonics_gradients(golden *g, const char *name, int each_row)
{
    eqnn_harmonics_opts o;
    eqnn_tensor *r = matrix(g, "x", 3);
    size_t n;
    double *theirs = numbers(g, name, &n), *ours = (double *)calloc(n + 1, sizeof(double));
    int rows = eqnn_rows(r), cols = rows ? (int)n / rows / 3 : 0;
    harmonics_settings(g, name, &o);
    eqnn_tensor *Y = eqnn_to_e3nn(eqnn_spherical_harmonics(r, lmax_of(cols), &o));
    double *pick = (double *)calloc((size_t)rows * (size_t)cols + 1, sizeof(double));
    for (int j = 0; theirs && Y && j < cols; j++) {
        for (int i = 0; i < rows; i++) pick[i * cols + j] = 1;
        eqnn_tensor *d = eqnn_vjp(Y, eqnn_from_double(g->c, rows, cols, pick), r);
        for (int i = 0; d && i < rows; i++)
            for (int k = 0; k < 3; k++) ours[(i * cols + j) * 3 + k] = eqnn_at(d, i, k);
        for (int i = 0; i < rows; i++) pick[i * cols + j] = 0;
    }
    for (int i = 0; theirs && o.normalize && i < rows; i++) {
        double s = fabs(eqnn_at(r, i, 0)) + fabs(eqnn_at(r, i, 1)) + fabs(eqnn_at(r, i, 2));
        if (s < 1e-12) memset(theirs + i * cols * 3, 0, (size_t)cols * 3 * sizeof(double));
    }
    for (int l = 0; theirs && l <= lmax_of(cols); l++)
        compare_columns(g, name, ours, theirs, rows, 3 * cols, 3 * l * l, 3 * (2 * l + 1),
                        each_row);
    free(theirs); free(ours); free(pick);
}

/* "Y_list_2_0_2": the normalised harmonics of these degrees, in this order, of x10. */
static void harmonics_list(golden *g, const char *name)
{
    eqnn_harmonics_opts o = { 1, EQNN_COMPONENT };
    eqnn_tensor *Y = eqnn_spherical_harmonics(matrix(g, "x10", 3), 12, &o), *out = NULL;
    for (const char *s = strstr(name, "list_") + 4; *s == '_'; s += strcspn(s + 1, "_") + 1) {
        int l = atoi(s + 1);
        eqnn_tensor *part = eqnn_slice(Y, l * l, 2 * l + 1);
        out = out ? eqnn_concat(out, part) : part;
    }
    compare(g, name, eqnn_to_e3nn(out));
}

static void spherical_harmonics(golden *g)
{
    int edge = strstr(g->file, "edge") != NULL; /* rows of very different sizes */
    for (int i = 0; i < eqnn_file_count(g->f); i++) {
        const char *name = eqnn_file_entry(g->f, i)->name;
        int values = !strncmp(name, "Y/", 2), gradients = !strncmp(name, "dY/", 3);
        int list = !strncmp(name, "Y_list_", 7);
        if (!values && !gradients && !list) continue;
        begin(g, "");
        if (values) harmonics_values(g, name, edge);
        if (gradients) harmonics_gradients(g, name, edge);
        if (list) harmonics_list(g, name);
        end_within(g, name, strstr(name, "normalize_0") ? 1e-9 : 1e-10, 1e-5);
    }
}

/* ---- tensor products ------------------------------------------------------------------------ */

/* 1 in the columns of output blocks that some path reaches. */
static void compare_mask(golden *g, const eqnn_product *p)
{
    size_t n;
    double *theirs = numbers(g, "output_mask", &n);
    const eqnn_irreps *out = eqnn_product_out(p);
    for (int b = 0; theirs && (int)n == out->cols && b < out->blocks; b++) {
        int width = out->block[b].copies * out->block[b].type->dim;
        for (int k = 0; k < width; k++) {
            double ours = eqnn_product_reaches(p, b);
            compare_numbers(g, "output_mask", &ours, theirs + out->block[b].start + k, 1);
        }
    }
    free(theirs);
}

static void compare_coefficients(golden *g, const eqnn_product *p)
{
    size_t n;
    double *theirs = numbers(g, "path_coefficient", &n);
    if ((int)n != eqnn_product_paths(p))
        eqnn_fail(g->c, "golden: %d paths, theirs %d", eqnn_product_paths(p), (int)n);
    else
        for (int i = 0; i < (int)n; i++) {
            double ours = eqnn_product_coefficient(p, i);
            compare_numbers(g, "path_coefficient", &ours, theirs + i, 1);
        }
    free(theirs);
}

/* Optional variances of blocks, NULL when they are not given; to be freed. */
static double *variances(const json *list)
{
    double *v = list ? (double *)calloc((size_t)list->count + 1, sizeof(double)) : NULL;
    for (int i = 0; v && i < list->count; i++) v[i] = json_number(json_at(list, i), 1);
    return v;
}

/* [i1, i2, io, mode, has_weight, path_weight] each; to be freed. */
static eqnn_path *instructions(golden *g, const json *list)
{
    eqnn_path *p = (eqnn_path *)calloc((size_t)json_count(list) + 1, sizeof(eqnn_path));
    for (int i = 0; i < json_count(list); i++) {
        const json *t = json_at(list, i);
        double weight = json_number(json_at(t, 5), 1);
        p[i].i1 = json_int(json_at(t, 0), -1);
        p[i].i2 = json_int(json_at(t, 1), -1);
        p[i].io = json_int(json_at(t, 2), -1);
        p[i].mode = (eqnn_mode)find_word(g, modes, json_text(json_at(t, 3), NULL));
        p[i].unweighted = !json_true(json_at(t, 4), 1);
        p[i].path_weight = weight > 0 ? weight : -1; /* theirs: 0 is off; ours: 0 is the default */
    }
    return p;
}

static const eqnn_product *product_of(golden *g, const json *j, int full)
{
    const eqnn_irreps *in1 = eqnn_irreps_make(g->c, json_text(json_get(j, "irreps_in1"), NULL));
    const eqnn_irreps *in2 = eqnn_irreps_make(g->c, json_text(json_get(j, "irreps_in2"), NULL));
    const eqnn_irreps *out = eqnn_irreps_make(g->c, json_text(json_get(j, "irreps_out"), NULL));
    double *v1 = variances(json_get(j, "in1_var")), *v2 = variances(json_get(j, "in2_var"));
    double *vo = variances(json_get(j, "out_var"));
    eqnn_path *paths = full ? NULL : instructions(g, json_get(j, "instructions"));
    const eqnn_product *p;
    eqnn_product_opts o;
    memset(&o, 0, sizeof o);
    o.irrep_kind = (eqnn_irrep_kind)find_word(
        g, irrep_kinds, json_text(json_get(j, "irrep_normalization"), "component"));
    o.path_kind = (eqnn_path_kind)find_word(
        g, path_kinds, json_text(json_get(j, "path_normalization"), "element"));
    o.in1_var = v1;
    o.in2_var = v2;
    o.out_var = vo;
    p = full ? eqnn_product_full(g->c, in1, in2, out, &o)
             : eqnn_product_make(g->c, in1, in2, out, paths,
                                 json_count(json_get(j, "instructions")), &o);
    free(v1); free(v2); free(vo); free(paths);
    return p;
}

static void tensor_product(golden *g, const json *j, int full)
{
    static const char *const names[] = { "x1", "x2", "w" };
    const eqnn_product *p = product_of(g, j, full);
    int weights = p ? eqnn_product_weights(p) : 0;
    eqnn_tensor *x[3] = { matrix(g, "x1", 0), matrix(g, "x2", 0), NULL };
    if (!p) return;
    if (has(g, "w") && weights > 0) x[2] = matrix(g, "w", weights);
    eqnn_tensor *a =
        eqnn_from_e3nn(x[0], eqnn_irreps_make(g->c, json_text(json_get(j, "irreps_in1"), NULL)));
    eqnn_tensor *b =
        eqnn_from_e3nn(x[1], eqnn_irreps_make(g->c, json_text(json_get(j, "irreps_in2"), NULL)));
    eqnn_tensor *out = eqnn_to_e3nn(eqnn_tensor_product(a, b, x[2], p));
    compare(g, "out", out);
    compare_inputs(g, out, x, names, x[2] ? 3 : 2);
    compare_mask(g, p);
    compare_coefficients(g, p);
}

static void tensor_products(golden *g)
{
    int full = !strncmp(g->file, "fully_connected", 15);
    for (int k = 0; ; k++) {
        char title[32];
        snprintf(title, sizeof title, "case%d", k);
        if (!eqnn_file_meta(g->f, title)) break;
        begin(g, title);
        json *j = meta(g, title);
        tensor_product(g, j, full);
        json_free(j);
        end(g);
    }
}

static void numbered(golden *g, const char *kind, void (*run)(golden *, const json *))
{
    for (int k = 0; ; k++) {
        char title[32];
        snprintf(title, sizeof title, "%s%d", kind, k);
        if (!eqnn_file_meta(g->f, title)) break;
        begin(g, title);
        json *j = meta(g, title);
        run(g, j);
        json_free(j);
        end(g);
    }
}

/* ---- products made from the labels alone ---------------------------------------------------- */

static const eqnn_product *family_product(golden *g, const json *j)
{
    const json *label = json_get(j, "label"), *keep = json_get(j, "filter_ir_out");
    const eqnn_irreps *in1 = eqnn_irreps_make(g->c, json_text(json_get(j, "irreps_in1"), ""));
    const eqnn_irreps *in2 = eqnn_irreps_make(g->c, json_text(json_get(j, "irreps_in2"), ""));
    const eqnn_irreps *in = eqnn_irreps_make(g->c, json_text(json_get(j, "irreps_in"), ""));
    const eqnn_irreps *out = eqnn_irreps_make(g->c, json_text(json_get(j, "irreps_out"), NULL)),
                      *filter = NULL;
    eqnn_product_opts o;
    memset(&o, 0, sizeof o);
    o.irrep_kind = (eqnn_irrep_kind)find_word(
        g, irrep_kinds, json_text(json_get(j, "irrep_normalization"), "component"));
    for (int i = 0; i < json_count(keep); i++) {
        const eqnn_irreps *one = eqnn_irreps_make(g->c, json_text(json_at(keep, i), NULL));
        filter = filter ? eqnn_irreps_concat(g->c, filter, one) : one;
    }
    if (!strcmp(json_text(label, ""), "FullTensorProduct"))
        return eqnn_product_outer(g->c, in1, in2, filter, &o);
    if (!strcmp(json_text(label, ""), "ElementwiseTensorProduct"))
        return eqnn_product_elementwise(g->c, in1, in2, filter, &o);
    if (!strcmp(json_text(label, ""), "TensorSquare"))
        return has(g, "w") ? eqnn_product_square_full(g->c, in, out, &o)
                           : eqnn_product_square(g->c, in, filter, &o);
    eqnn_fail(g->c, "golden: unknown product \"%s\"", json_text(label, ""));
    return NULL;
}

static void family_coefficients(golden *g, const json *j, const eqnn_product *p)
{
    const json *list = json_get(j, "path_coefficient");
    if (json_count(list) != eqnn_product_paths(p))
        eqnn_fail(g->c, "golden: %d paths, theirs %d", eqnn_product_paths(p), json_count(list));
    for (int i = 0; i < json_count(list); i++) {
        double ours = eqnn_product_coefficient(p, i), theirs = json_number(json_at(list, i), -1);
        compare_numbers(g, "path_coefficient", &ours, &theirs, 1);
    }
}

static void family_case(golden *g, const json *j)
{
    static const char *const names[] = { "x1", "x2" }, *const square_names[] = { "x1", "w" };
    int square = json_get(j, "irreps_in") != NULL;
    const eqnn_product *p = family_product(g, j);
    const eqnn_irreps *in1 =
        eqnn_irreps_make(g->c, json_text(json_get(j, square ? "irreps_in" : "irreps_in1"), NULL));
    const eqnn_irreps *in2 =
        square ? in1 : eqnn_irreps_make(g->c, json_text(json_get(j, "irreps_in2"), NULL));
    if (!p || !in1 || !in2) return;
    if (eqnn_product_out(p) != eqnn_irreps_make(g->c, json_text(json_get(j, "irreps_out"), NULL)))
        eqnn_fail(g->c, "golden: the product leads to %s", eqnn_product_out(p)->name);
    eqnn_tensor *x[2] = { matrix(g, "x1", 0), square ? NULL : matrix(g, "x2", 0) };
    eqnn_tensor *w = has(g, "w") ? matrix(g, "w", 0) : NULL, *a = eqnn_from_e3nn(x[0], in1);
    eqnn_tensor *out =
        eqnn_to_e3nn(eqnn_tensor_product(a, square ? a : eqnn_from_e3nn(x[1], in2), w, p));
    if (square) x[1] = w;
    compare(g, "out", out);
    compare_inputs(g, out, x, square ? square_names : names, x[1] ? 2 : 1);
    family_coefficients(g, j, p);
}

static void family_norm(golden *g, const json *j)
{
    static const char *const names[] = { "x" };
    const eqnn_irreps *in = eqnn_irreps_make(g->c, json_text(json_get(j, "irreps_in"), NULL));
    eqnn_tensor *x = matrix(g, "x", 0), *a = eqnn_from_e3nn(x, in);
    eqnn_tensor *out =
        json_true(json_get(j, "squared"), 0) ? eqnn_square_copies(a) : eqnn_norm_copies(a);
    compare(g, "out", out);
    compare_inputs(g, out, &x, names, 1);
}

static void product_family(golden *g)
{
    numbered(g, "case", family_case);
    numbered(g, "norm", family_norm);
}

/* ---- linear --------------------------------------------------------------------------------- */

typedef struct linear_settings {
    eqnn_irreps_linear_opts o;
    int flags[64], paths[64][2];
} linear_settings;

static void read_linear(golden *g, linear_settings *s, const json *kwargs)
{
    const json *biases = json_get(kwargs, "biases"), *list = json_get(kwargs, "instructions");
    memset(s, 0, sizeof *s);
    s->o.biases = json_true(biases, 0);
    if (biases && biases->type == '[') {
        for (int i = 0; i < biases->count && i < 64; i++)
            s->flags[i] = json_true(json_at(biases, i), 0);
        s->o.bias_blocks = s->flags;
    }
    s->o.path_kind = (eqnn_path_kind)find_word(
        g, path_kinds, json_text(json_get(kwargs, "path_normalization"), "element"));
    for (int i = 0; i < json_count(list) && i < 64; i++)
        for (int k = 0; k < 2; k++) s->paths[i][k] = json_int(json_at(json_at(list, i), k), -1);
    if (!list) return;
    s->o.paths = (const int (*)[2])s->paths;
    s->o.path_count = json_count(list);
}

/* Where no path leads the output is exactly zero. */
static void check_mask(golden *g, const eqnn_tensor *out)
{
    size_t n;
    double *mask = numbers(g, "output_mask", &n);
    for (int i = 0; mask && i < eqnn_rows(out); i++)
        for (int k = 0; k < (int)n; k++)
            if (mask[k] == 0 && eqnn_at(out, i, k) != 0) worse(g, "output_mask", INFINITY);
    free(mask);
}

static void linear_case(golden *g, const json *j)
{
    const char *names[3] = { "x", "w", "bias" };
    linear_settings s;
    const eqnn_irreps *in = eqnn_irreps_make(g->c, json_text(json_get(j, "irreps_in"), NULL));
    const eqnn_irreps *to = eqnn_irreps_make(g->c, json_text(json_get(j, "irreps_out"), NULL));
    eqnn_tensor *x[3];
    read_linear(g, &s, json_get(j, "kwargs"));
    x[0] = matrix(g, "x", 0);
    int weights = eqnn_irreps_map_weights(in, to, &s.o), given = 1;
    x[1] = weights > 0 ? matrix(g, "w", weights) : NULL;
    x[2] = has(g, "bias") ? matrix(g, "bias", 0) : NULL;
    eqnn_tensor *out =
        eqnn_to_e3nn(eqnn_irreps_map(eqnn_from_e3nn(x[0], in), x[1], x[2], to, &s.o));
    compare(g, "out", out);
    if (has(g, "output_mask")) check_mask(g, out);
    for (int k = 1; k < 3; k++)
        if (x[k]) x[given] = x[k], names[given++] = k == 1 ? "w" : "bias";
    if (!weights) has(g, "w"), has(g, "grad_w"); /* nothing leads anywhere */
    compare_inputs(g, out, x, names, given);
}

/* A Linear with channels in front: out[n,o] = sum over f of map(x[n,f], w[f,o]) / sqrt(f_in).
   Its text is "Linear(IN -> OUT, f_in=3, f_out=4): ...". */
static void linear_channels(golden *g)
{
    char text[512], from[128], to[128];
    int fi, fo, cols = 0;
    if (sscanf(meta_text(g, "channels", text), "Linear(%127s -> %127[^,], f_in=%d, f_out=%d)", from,
               to, &fi, &fo) != 4) {
        eqnn_fail(g->c, "golden: cannot read \"%s\"", text);
        return;
    }
    const eqnn_irreps *in = eqnn_irreps_make(g->c, from), *out = eqnn_irreps_make(g->c, to);
    cols = in ? in->cols : 1;
    eqnn_tensor *x = matrix(g, "x", fi * cols), *w = matrix(g, "w", 0), *all = NULL;
    for (int o = 0; o < fo; o++) {
        eqnn_tensor *sum = NULL;
        for (int f = 0; f < fi; f++) {
            eqnn_tensor *xf = eqnn_from_e3nn(eqnn_slice(x, f * cols, cols), in);
            eqnn_tensor *y =
                eqnn_irreps_map(xf, eqnn_slice_rows(w, f * fo + o, 1), NULL, out, NULL);
            sum = sum ? eqnn_add(sum, y) : y;
        }
        sum = eqnn_to_e3nn(eqnn_scale(sum, 1 / sqrt(fi)));
        all = all ? eqnn_concat(all, sum) : sum;
    }
    compare(g, "out", all);
}

static void linear(golden *g)
{
    for (int k = 0; ; k++) {
        char title[32];
        snprintf(title, sizeof title, "case%d", k);
        if (!eqnn_file_meta(g->f, title)) break;
        begin(g, title);
        json *j = meta(g, title);
        linear_case(g, j);
        json_free(j);
        end(g);
    }
    if (!mark(g, "channels/")) return;
    begin(g, "channels");
    linear_channels(g);
    end(g);
}

/* ---- gates, activations, radial functions --------------------------------------------------- */

/* Names of activations, null for none, into acts[]. */
static void read_acts(golden *g, const json *list, eqnn_act acts[32])
{
    memset(acts, 0, 32 * sizeof(eqnn_act));
    for (int i = 0; i < json_count(list) && i < 32; i++) {
        const char *name = json_text(json_at(list, i), NULL);
        acts[i] = name ? eqnn_act_find(g->c, name) : EQNN_IDENTITY;
    }
}

static void check_label(golden *g, const eqnn_irreps *ours, const json *theirs, const char *what)
{
    const eqnn_irreps *a = eqnn_irreps_make(g->c, json_text(theirs, NULL));
    if (a && ours && eqnn_irreps_simplify(g->c, a) != eqnn_irreps_simplify(g->c, ours))
        eqnn_fail(g->c, "golden: %s is %s, theirs %s", what, ours->name, a->name);
}

static void nn_gate(golden *g, const json *j)
{
    static const char *const names[] = { "x" };
    eqnn_act scalars[32], gates[32];
    eqnn_gate_spec s;
    memset(&s, 0, sizeof s);
    s.scalars = eqnn_irreps_make(g->c, json_text(json_get(j, "irreps_scalars"), ""));
    s.gates = eqnn_irreps_make(g->c, json_text(json_get(j, "irreps_gates"), ""));
    s.gated = eqnn_irreps_make(g->c, json_text(json_get(j, "irreps_gated"), ""));
    read_acts(g, json_get(j, "act_scalars"), scalars);
    read_acts(g, json_get(j, "act_gates"), gates);
    s.act_scalars = scalars;
    s.act_gates = gates;
    eqnn_tensor *x = matrix(g, "x", 0),
                *y = eqnn_gate(eqnn_from_e3nn(x, eqnn_gate_in(g->c, &s)), &s);
    check_label(g, eqnn_gate_in(g->c, &s), json_get(j, "irreps_in"), "the gate's input");
    check_label(g, eqnn_label_of(y), json_get(j, "irreps_out"), "the gate's output");
    y = eqnn_to_e3nn(y);
    compare(g, "out", y);
    compare_inputs(g, y, &x, names, 1);
}

static void nn_activation(golden *g, const json *j)
{
    static const char *const names[] = { "x" };
    eqnn_act acts[32];
    eqnn_tensor *x = matrix(g, "x", 0), *y;
    read_acts(g, json_get(j, "acts"), acts);
    y = eqnn_activation(
        eqnn_from_e3nn(x, eqnn_irreps_make(g->c, json_text(json_get(j, "irreps_in"), NULL))), acts,
        0);
    check_label(g, eqnn_label_of(y), json_get(j, "irreps_out"), "the activation's output");
    y = eqnn_to_e3nn(y);
    compare(g, "out", y);
    compare_inputs(g, y, &x, names, 1);
}

static void nn_fc(golden *g, const json *j)
{
    static const char *const names[] = { "x" };
    const json *hs = json_get(j, "hs"), *kwargs = json_get(j, "kwargs");
    char widths[256] = "";
    eqnn_fc_opts o;
    memset(&o, 0, sizeof o);
    for (int i = 1; i < json_count(hs); i++)
        snprintf(widths + strlen(widths), sizeof widths - strlen(widths), "%s%d", i > 1 ? "," : "",
                 json_int(json_at(hs, i), 0));
    o.no_act = !json_get(j, "act");
    if (!o.no_act) o.act = eqnn_act_find(g->c, json_text(json_get(j, "act"), NULL));
    o.variance_in = json_number(json_get(kwargs, "variance_in"), 1);
    o.variance_out = json_number(json_get(kwargs, "variance_out"), 1);
    o.out_act = json_true(json_get(kwargs, "out_act"), 0);
    eqnn_fc(matrix(g, "x", 0), "fc", widths, &o); /* makes the weights */
    set_weights(g, "", "fc");
    eqnn_tensor *x = matrix(g, "x", 0), *y = eqnn_fc(x, "fc", widths, &o);
    compare(g, "out", y);
    compare_inputs(g, y, &x, names, 1);
    eqnn_backward(eqnn_sum(eqnn_mul(y, matrix(g, "cotangent", 0))));
    compare_gradients(g, "grad_", "fc");
}

/* act/NAME: the normalised function of act/x, and its constant. */
static void nn_act(golden *g, const char *name)
{
    eqnn_act act = eqnn_act_find(g->c, name);
    json *constants = meta(g, "act_constants");
    eqnn_tensor *x = eqnn_from_e3nn(column(g, "x"), eqnn_irreps_make(g->c, "1x0e"));
    double p = act == EQNN_ELU ? 1 : act == EQNN_LEAKY_RELU ? 0.01 : 0;
    double ours = eqnn_moment(g->c, act, p, 0), theirs = json_number(json_get(constants, name), 0);
    compare(g, name, eqnn_to_e3nn(eqnn_activation(x, &act, 0)));
    compare_numbers(g, "act_constants", &ours, &theirs, 1);
    json_free(constants);
}

static void nn_normact(golden *g, const json *j)
{
    static const char *const names[] = { "x", "biases" };
    const eqnn_irreps *in = eqnn_irreps_make(g->c, json_text(json_get(j, "irreps_in"), NULL));
    char act[32] = "";
    eqnn_norm_activation_opts o;
    memset(&o, 0, sizeof o);
    sscanf(json_text(json_get(j, "scalar_nonlinearity"), ""), "%31s", act); /* "tanh (not ...)" */
    o.eps = json_number(json_get(j, "epsilon"), 0);
    o.bias = json_true(json_get(j, "bias"), 0);
    o.no_normalize = !json_true(json_get(j, "normalize"), 1);
    eqnn_tensor *x[2] = { matrix(g, "x", 0), NULL };
    eqnn_norm_activation(eqnn_from_e3nn(x[0], in), "act", eqnn_act_find(g->c, act),
                         &o); /* makes the biases */
    set_weights(g, "", "act");
    x[1] = eqnn_parameter(g->c, "act.biases");
    eqnn_tensor *y = eqnn_to_e3nn(
        eqnn_norm_activation(eqnn_from_e3nn(x[0], in), "act", eqnn_act_find(g->c, act), &o));
    compare(g, "out", y);
    compare_inputs(g, y, x, names, o.bias ? 2 : 1);
}

static eqnn_tensor *bn_layer(golden *g, const json *j, eqnn_tensor *x, eqnn_ints *example)
{
    const json *k = json_get(j, "kwargs");
    eqnn_irreps_norm_opts o;
    memset(&o, 0, sizeof o);
    o.eps = json_number(json_get(k, "eps"), 0);
    o.momentum = json_number(json_get(k, "momentum"), 0);
    o.no_affine = !json_true(json_get(k, "affine"), 1);
    o.no_bias = !json_true(json_get(k, "include_bias"), 1);
    o.instance = json_true(json_get(k, "instance"), 0);
    o.norm = !strcmp(json_text(json_get(k, "normalization"), "component"), "norm");
    o.max = !strcmp(json_text(json_get(k, "reduce"), "mean"), "max");
    o.example = example;
    x = eqnn_from_e3nn(x, eqnn_irreps_make(g->c, json_text(json_get(j, "irreps"), NULL)));
    return eqnn_to_e3nn(eqnn_irreps_batch_norm(x, "bn", &o));
}

/* x is [examples, cols] or [examples, rows of each, cols]. */
static eqnn_ints *bn_examples(golden *g, const eqnn_tensor *x)
{
    char full[256];
    eqnn_file *f;
    const eqnn_entry *e = find_entry(g, full_name(g, "x", full), &f);
    int n = e ? (int)e->shape[0] : 1, each = eqnn_rows(x) / n,
        *of = (int *)calloc((size_t)(n * each) + 1, sizeof(int));
    for (int i = 0; i < n * each; i++) of[i] = i / each;
    eqnn_ints *example = eqnn_ints_make(g->c, n * each, of, n, 0);
    free(of);
    return example;
}

/* One phase, "train0", "train1" or "eval", of the case "bnK". */
static void bn_phase(golden *g, const json *j, const char *title, const char *phase)
{
    static const char *const names[] = { "x" };
    snprintf(g->title, sizeof g->title, "%s/%s", title, phase);
    eqnn_training(g->c, phase[0] == 't');
    eqnn_tensor *x = matrix(g, "x", 0), *y = bn_layer(g, j, x, bn_examples(g, x));
    compare(g, "out", y);
    compare_inputs(g, y, &x, names, 1);
    eqnn_backward(eqnn_sum(eqnn_mul(y, matrix(g, "cotangent", 0))));
    compare_gradients(g, "grad_", "bn");
    eqnn_zero_gradients(g->c);
    eqnn_commit(g->c);
    if (has(g, "running_mean_after"))
        compare(g, "running_mean_after", eqnn_parameter(g->c, "bn.running_mean"));
    if (has(g, "running_var_after"))
        compare(g, "running_var_after", eqnn_parameter(g->c, "bn.running_var"));
}

static void nn_bn(golden *g, const json *j)
{
    char title[32];
    const eqnn_irreps *in = eqnn_irreps_make(g->c, json_text(json_get(j, "irreps"), NULL));
    snprintf(title, sizeof title, "%.31s", g->title);
    bn_layer(g, j, eqnn_zeros(g->c, 1, in ? in->cols : 1), NULL); /* makes the weights */
    set_weights(g, "", "bn");
    bn_phase(g, j, title, "train0");
    bn_phase(g, j, title, "train1");
    bn_phase(g, j, title, "eval");
    snprintf(g->title, sizeof g->title, "%s", title);
}

/* "Extract(IN -> [OUT , OUT], instructions [(2,3),(1,)])" */
static void nn_extract(golden *g)
{
    char text[512], in[128], name[32];
    const char *s = strstr(meta_text(g, "extract", text), "instructions [");
    if (!s || sscanf(text, "Extract(%127s", in) != 1) {
        eqnn_fail(g->c, "golden: cannot read \"%s\"", text);
        return;
    }
    eqnn_tensor *x = eqnn_from_e3nn(matrix(g, "x", 0), eqnn_irreps_make(g->c, in));
    for (int k = 0; (s = strchr(s, '(')) != NULL; k++) {
        int blocks[16], n = 0;
        for (s++; *s && *s != ')' && n < 16; s += strcspn(s, ",)"), s += *s == ',')
            blocks[n++] = atoi(s);
        snprintf(name, sizeof name, "out%d", k);
        compare(g, name, eqnn_to_e3nn(eqnn_extract(x, blocks, n)));
    }
}

static void nn(golden *g)
{
    numbered(g, "gate", nn_gate);
    numbered(g, "activation", nn_activation);
    numbered(g, "fc", nn_fc);
    for (int i = 0; i < eqnn_file_count(g->f); i++) {
        const char *name = eqnn_file_entry(g->f, i)->name;
        if (strncmp(name, "act/", 4) || !strcmp(name, "act/x")) continue;
        begin(g, "act");
        nn_act(g, name + 4);
        end_within(g, name, 1e-10, 1e-5);
    }
    numbered(g, "normact", nn_normact);
    numbered(g, "bn", nn_bn);
    if (!mark(g, "extract/")) return;
    begin(g, "extract");
    nn_extract(g);
    end(g);
}

/* The slopes of all functions at x + shift, [n, number]. */
static eqnn_tensor *radial_slopes(golden *g, double shift, int number, double end,
                                  const eqnn_radial_opts *o)
{
    eqnn_tensor *x = eqnn_shift(column(g, "x"), shift), *all = NULL;
    eqnn_tensor *y = eqnn_radial_basis(x, number, end, o);
    for (int k = 0; k < number; k++) {
        eqnn_tensor *d = eqnn_grad(eqnn_sum(eqnn_slice(y, k, 1)), x);
        all = all ? eqnn_concat(all, d) : d;
    }
    return all;
}

/* A point may lie on a kink, where rounding decides between the slopes on its two sides: there
   the slope of either side is right. */
static void compare_slopes(golden *g, const char *name, const eqnn_tensor *at,
                           const eqnn_tensor *left, const eqnn_tensor *right)
{
    size_t n;
    double *theirs = numbers(g, name, &n), *ours = (double *)calloc(n + 1, sizeof(double));
    int cols = eqnn_cols(at);
    for (int i = 0; at && left && right && theirs && i < (int)n; i++) {
        double a = eqnn_at(at, i / cols, i % cols), t = theirs[i];
        double l = eqnn_at(left, i / cols, i % cols), r = eqnn_at(right, i / cols, i % cols);
        int kink = fabs(l - r) > 1e-2 && fmin(fabs(l - t), fabs(r - t)) < 1e-4 * fmax(1, fabs(t));
        ours[i] = kink && fmin(fabs(l - a), fabs(r - a)) < 1e-4 * fmax(1, fabs(t)) ? t : a;
    }
    if (theirs && (int)n == eqnn_rows(at) * cols) compare_numbers(g, name, ours, theirs, n);
    else eqnn_fail(g->c, "golden: %s: theirs has %d numbers", name, (int)n);
    free(theirs);
    free(ours);
}

/* "BASIS/cutoff_B" and its derivative "BASIS/cutoff_B_dx". */
static void radial_case(golden *g, const json *j, const char *basis, int cutoff)
{
    char name[64], slope[80];
    int number = json_int(json_get(j, "number"), 1);
    double end = json_number(json_get(j, "end"), 1), h;
    eqnn_radial_opts o;
    memset(&o, 0, sizeof o);
    o.start = json_number(json_get(j, "start"), 0);
    o.basis = (eqnn_basis)find_word(g, bases, basis);
    o.cutoff = cutoff;
    o.unscaled = 1;
    h = (end - o.start) * test_eps(1e-8, 1e-6);
    snprintf(name, sizeof name, "%s/cutoff_%d", basis, cutoff);
    snprintf(slope, sizeof slope, "%s_dx", name);
    compare(g, name, eqnn_radial_basis(column(g, "x"), number, end, &o));
    compare_slopes(g, slope, radial_slopes(g, 0, number, end, &o),
                   radial_slopes(g, -h, number, end, &o), radial_slopes(g, h, number, end, &o));
}

static void radial_set(golden *g, const char *set)
{
    for (int i = 0; i < eqnn_file_count(g->f); i++) {
        char basis[32], tail[8] = "", title[64];
        const char *name = eqnn_file_entry(g->f, i)->name;
        int cutoff;
        if (strncmp(name, set, strlen(set)) || name[strlen(set)] != '/') continue;
        if (sscanf(name + strlen(set), "/%31[^/]/cutoff_%d%7s", basis, &cutoff, tail) < 2 ||
            tail[0])
            continue;
        snprintf(title, sizeof title, "%s", name);
        begin(g, set);
        json *j = meta(g, set);
        radial_case(g, j, basis, cutoff);
        json_free(j);
        /* sin(k u)/u: both terms of the reference's derivative are 1e6 times their sum at u =
           1e-6 */
        end_within(g, title, !strcmp(basis, "bessel") ? 1e-9 : 1e-10, 1e-5);
    }
}

static void radial_bases(golden *g)
{
    for (int k = 0; ; k++) {
        char set[32];
        snprintf(set, sizeof set, "set%d", k);
        if (!eqnn_file_meta(g->f, set)) break;
        radial_set(g, set);
    }
    if (mark(g, "sus/")) {
        begin(g, "sus");
        compare(g, "y", eqnn_map(column(g, "x"), EQNN_SUS, 0, 0));
        compare(g, "dy", eqnn_map(column(g, "x"), EQNN_SUS, 0, 1));
        end(g);
    }
    if (!mark(g, "smooth_cutoff/")) return;
    begin(g, "smooth_cutoff");
    compare(g, "y", eqnn_map(column(g, "x"), EQNN_COSINE_CUTOFF, 0, 0));
    end(g);
}

/* ---- networks ------------------------------------------------------------------------------- */

/* Positions about their mean: the models are invariant under translations, and float positions
   26 units away from the origin have lost two digits of every distance before anything is
   computed. */
static eqnn_tensor *positions(golden *g)
{
    size_t n;
    double *v = numbers(g, "pos", &n), mean[3] = { 0, 0, 0 };
    for (size_t i = 0; v && i < n; i++) mean[i % 3] += v[i] / (double)(n / 3);
    for (size_t i = 0; v && i < n; i++) v[i] -= mean[i % 3];
    eqnn_tensor *pos = v ? eqnn_from_double(g->c, (int)n / 3, 3, v) : NULL;
    free(v);
    return pos;
}

/* The file's edges, or all within the radius; given edges must be those within the radius. */
static const eqnn_graph *graph_of(golden *g, eqnn_tensor *pos, double radius)
{
    int n, m;
    int *batch = integers(g, "batch", &n), *src, *dst;
    const eqnn_graph *near, *given;
    eqnn_graph_opts o;
    memset(&o, 0, sizeof o);
    o.targets = o.sources = eqnn_rows(pos);
    o.example = batch;
    near = eqnn_radius_graph(pos, radius, &o);
    if (has(g, "edge_src") && near) {
        src = integers(g, "edge_src", &m);
        dst = integers(g, "edge_dst", &m);
        given = eqnn_graph_make(g->c, m, src, dst, &o);
        for (int e = 0; given && e < m && m == near->edges; e++)
            if (given->source[e] != near->source[e] || given->target[e] != near->target[e])
                near = NULL, m = -1;
        if (!near || m != near->edges)
            eqnn_fail(g->c, "golden: the radius graph differs from the given edges");
        free(src);
        free(dst);
        near = given;
    }
    free(batch);
    return near;
}

static void network_settings(golden *g, const json *k, eqnn_network_opts *o)
{
    const eqnn_irreps *edge =
        eqnn_irreps_make(g->c, json_text(json_get(k, "irreps_edge_attr"), NULL));
    memset(o, 0, sizeof *o);
    o->hidden = json_text(json_get(k, "irreps_hidden"), NULL);
    o->out = json_text(json_get(k, "irreps_out"), NULL);
    o->layers = json_int(json_get(k, "layers"), 3);
    if (o->layers == 0) o->layers = -1;
    o->lmax = edge ? eqnn_irreps_lmax(edge) : 0;
    if (edge != eqnn_irreps_spherical(g->c, o->lmax))
        eqnn_fail(g->c, "golden: edge attributes %s are not those of a vector",
                  edge ? edge->name : "");
    if (o->lmax == 0) o->lmax = -1;
    o->radius = json_number(json_get(k, "max_radius"), 0);
    o->basis = json_int(json_get(k, "number_of_basis"), 10);
    o->radial_layers = json_int(json_get(k, "radial_layers"), 1);
    if (o->radial_layers == 0) o->radial_layers = -1;
    o->radial_neurons = json_int(json_get(k, "radial_neurons"), 128);
    o->neighbours = json_number(json_get(k, "num_neighbors"), 1);
    o->nodes = json_number(json_get(k, "num_nodes"), 1);
    o->reduce = json_true(json_get(k, "reduce_output"), 1);
}

static eqnn_tensor *node_input(golden *g, const json *k, const char *entry, const char *setting)
{
    const char *irreps = json_text(json_get(k, setting), NULL);
    return irreps ? eqnn_from_e3nn(matrix(g, entry, 0), eqnn_irreps_make(g->c, irreps)) : NULL;
}

static eqnn_tensor *network_of(golden *g, const json *k, eqnn_tensor *pos)
{
    eqnn_network_opts o;
    network_settings(g, k, &o);
    eqnn_tensor *x = node_input(g, k, "x", "irreps_in"),
                *z = node_input(g, k, "z", "irreps_node_attr");
    return eqnn_to_e3nn(eqnn_network(x, z, pos, graph_of(g, pos, o.radius), "net", &o));
}

/* energies per graph, forces -d(sum energy)/d pos, mean((E-E*)^2) + 10 mean((F-F*)^2) */
static eqnn_tensor *force_loss(golden *g, eqnn_tensor *energy, eqnn_tensor *pos)
{
    char text[512];
    eqnn_tensor *force = eqnn_neg(eqnn_grad(eqnn_sum(energy), pos));
    if (!strstr(meta_text(g, "definition", text),
                "mean((energy-energy_target)^2) + 10*mean((forces-forces_target)^2)"))
        eqnn_fail(g->c, "golden: unknown loss: %s", text);
    compare(g, "energy", energy);
    compare(g, "forces", force);
    return eqnn_add(eqnn_mse(energy, matrix(g, "energy_target", 0)),
                    eqnn_scale(eqnn_mse(force, matrix(g, "forces_target", 0)), 10));
}

static eqnn_tensor *network_loss(golden *g, eqnn_tensor *out, eqnn_tensor *pos)
{
    char text[512];
    if (has(g, "forces")) return force_loss(g, out, pos);
    compare(g, "out", out);
    meta_text(g, "loss", text);
    if (!strcmp(text, "mean of out^2")) return eqnn_mean(eqnn_square(out));
    if (!strcmp(text, "mean over all entries of (out-y)^2"))
        return eqnn_mse(out, matrix(g, "y", 0));
    eqnn_fail(g->c, "golden: unknown loss: %s", text);
    return NULL;
}

/* Every weight of the file must be one of ours. */
static void check_weights(golden *g, const char *prefix)
{
    for (int i = 0; i < eqnn_file_count(g->f); i++)
        if (!strncmp(eqnn_file_entry(g->f, i)->name, prefix, strlen(prefix)) && !g->used[i])
            eqnn_fail(g->c, "golden: \"%s\" is no weight of ours", eqnn_file_entry(g->f, i)->name);
}

static void network(golden *g)
{
    begin(g, "");
    json *k = meta(g, "kwargs");
    network_of(g, k, positions(g)); /* makes the weights */
    set_weights(g, "weight/", "net");
    check_weights(g, "weight/");
    eqnn_tensor *pos = positions(g), *out = network_of(g, k, pos),
                *loss = network_loss(g, out, pos);
    compare_value(g, "loss", eqnn_value(loss));
    compare(g, "grad_pos", eqnn_grad(loss, pos));
    eqnn_backward(loss);
    if (g->f2 || mark(g, "grad/")) compare_gradients(g, "grad/", "net");
    json_free(k);
    end(g);
}

static eqnn_tensor *polynomial_of(golden *g, eqnn_tensor *pos, const eqnn_graph *graph)
{
    char mid[512], out[512], sh[512], number[512];
    eqnn_polynomial_opts o;
    memset(&o, 0, sizeof o);
    o.mid = meta_text(g, "irreps_mid", mid);
    o.out = meta_text(g, "irreps_out", out);
    o.lmax = eqnn_irreps_lmax(eqnn_irreps_make(g->c, meta_text(g, "irreps_sh", sh)));
    if (o.lmax == 0) o.lmax = -1; /* 0 is the default */
    if (!strcmp(meta_text(g, "normalize", number), "true") ||
        strcmp(meta_text(g, "normalization", number), "component"))
        eqnn_fail(g->c, "golden: the polynomial has component harmonics of full length here");
    o.neighbours = atof(meta_text(g, "num_neighbors", number));
    o.sum_last = strcmp(meta_text(g, "last_reduce", number), "mean") != 0;
    return eqnn_to_e3nn(eqnn_polynomial(pos, graph, "net", &o));
}

/* The steps of the model, with the small operations: harmonics of edges in the file's order, and
   the features of nodes after each product. */
static void polynomial_steps(golden *g, eqnn_tensor *pos, const eqnn_graph *graph)
{
    char text[512];
    double scale = 1 / sqrt(atof(meta_text(g, "num_neighbors", text)));
    int lmax = eqnn_irreps_lmax(eqnn_irreps_make(g->c, meta_text(g, "irreps_sh", text)));
    eqnn_tensor *Y = eqnn_spherical_harmonics(eqnn_edge_vectors(pos, graph), lmax, NULL);
    eqnn_tensor *node = eqnn_scale(eqnn_scatter(Y, graph), scale);
    eqnn_ints *order = eqnn_ints_make(g->c, graph->edges, graph->order, graph->edges, 0);
    compare(g, "edge_sh", eqnn_collect(eqnn_to_e3nn(Y), order));
    compare(g, "node0", eqnn_to_e3nn(node));
    eqnn_tensor *x = eqnn_enter(eqnn_gather(node, graph), "net");
    x = eqnn_leave(eqnn_fully_connected(x, Y, "tp1", meta_text(g, "irreps_mid", text), NULL));
    compare(g, "node1", eqnn_to_e3nn(eqnn_scale(eqnn_scatter(x, graph), scale)));
}

static void polynomial(golden *g)
{
    char text[512];
    begin(g, "");
    eqnn_tensor *pos = positions(g);
    const eqnn_graph *graph = graph_of(g, pos, atof(meta_text(g, "r", text)));
    if (!graph) { end(g); return; }
    polynomial_of(g, pos, graph); /* makes the weights */
    set_weights(g, "", "net");
    eqnn_tensor *out = polynomial_of(g, pos, graph), *loss = eqnn_mse(out, matrix(g, "y", 0));
    compare(g, "out", out);
    compare_value(g, "loss", eqnn_value(loss));
    polynomial_steps(g, pos, graph);
    compare(g, "grad_pos", eqnn_grad(loss, pos));
    eqnn_backward(loss);
    compare_gradients(g, "grad/", "net");
    end(g);
}

static eqnn_tensor *network_2106_of(golden *g, const json *k, eqnn_tensor *x, eqnn_tensor *pos)
{
    char hidden[512] = "";
    eqnn_network_opts o;
    memset(&o, 0, sizeof o);
    int mul = json_int(json_get(k, "mul"), 50);
    o.lmax = json_int(json_get(k, "lmax"), 2);
    for (int l = 0; l <= o.lmax; l++)
        snprintf(hidden + strlen(hidden), sizeof hidden - strlen(hidden), "%s%dx%do+%dx%de",
                 l ? "+" : "", mul, l, mul, l);
    if (o.lmax == 0) o.lmax = -1; /* 0 is the default */
    o.hidden = hidden;
    o.out = json_text(json_get(k, "irreps_out"), NULL);
    o.layers = json_int(json_get(k, "layers"), 3);
    o.radius = json_number(json_get(k, "max_radius"), 0);
    o.neighbours = json_number(json_get(k, "num_neighbors"), 1);
    o.nodes = json_number(json_get(k, "num_nodes"), 1);
    o.reduce = json_true(json_get(k, "pool_nodes"), 1);
    x = eqnn_from_e3nn(x, eqnn_irreps_make(g->c, json_text(json_get(k, "irreps_in"), NULL)));
    return eqnn_to_e3nn(eqnn_network_2106(x, NULL, pos, graph_of(g, pos, o.radius), "net", &o));
}

/* out, its derivatives with respect to inputs, and those with respect to weights. */
static void compare_all(golden *g, eqnn_tensor *out, eqnn_tensor *const *x,
                        const char *const *names, int n)
{
    compare(g, "out", out);
    compare_inputs(g, out, x, names, n);
    eqnn_backward(eqnn_sum(eqnn_mul(out, matrix(g, "cotangent", 0))));
    compare_gradients(g, "grad/", "net");
}

static void network_2106(golden *g)
{
    static const char *const names[] = { "pos" };
    begin(g, "");
    json *k = meta(g, "kwargs");
    eqnn_tensor *x = matrix(g, "x", 0), *pos = positions(g);
    network_2106_of(g, k, x, pos); /* makes the weights */
    set_weights(g, "weight/", "net");
    check_weights(g, "weight/");
    compare_all(g, network_2106_of(g, k, x, pos), &pos, names, 1);
    json_free(k);
    end(g);
}

/* ---- attention ------------------------------------------------------------------------------ */

static int meta_true(golden *g, const char *key)
{
    const char *raw = eqnn_file_meta(g->f, key);
    if (!raw) eqnn_fail(g->c, "golden: %s: no settings \"%s\"", g->file, key);
    return raw && strstr(raw, "true") != NULL;
}

/* The file's graph: its edges lead across frames when batches are not respected. */
static const eqnn_graph *given_graph(golden *g, int nodes)
{
    int n, m;
    int *src = integers(g, "edge_src", &n), *dst = integers(g, "edge_dst", &m);
    eqnn_graph_opts o;
    memset(&o, 0, sizeof o);
    o.sources = o.targets = nodes;
    const eqnn_graph *graph = n == m ? eqnn_graph_make(g->c, n, src, dst, &o) : NULL;
    free(src);
    free(dst);
    return graph;
}

/* Rows of edges in the file's order. */
static eqnn_tensor *in_their_order(golden *g, eqnn_tensor *x, const eqnn_graph *graph)
{
    return eqnn_collect(x, eqnn_ints_make(g->c, graph->edges, graph->order, graph->edges, 0));
}

/* What a head computes on its way, with the small operations. */
static void attention_steps(golden *g, eqnn_tensor *x, eqnn_tensor *pos, const eqnn_graph *graph,
                            const eqnn_attention_opts *o)
{
    eqnn_radial_opts radial;
    eqnn_harmonics_opts unit;
    eqnn_fc_opts fc;
    memset(&radial, 0, sizeof radial);
    memset(&unit, 0, sizeof unit);
    memset(&fc, 0, sizeof fc);
    radial.basis = EQNN_SMOOTH_FINITE;
    radial.cutoff = unit.normalize = 1;
    fc.act = o->act;
    eqnn_tensor *r = eqnn_edge_vectors(pos, graph), *length = eqnn_norm(r);
    eqnn_tensor *b = eqnn_radial_basis(length, o->basis, o->radius, &radial);
    eqnn_tensor *t = eqnn_shift(eqnn_scale(length, -10 / o->radius), 10);
    compare(g, "edge_length_embedded", in_their_order(g, b, graph));
    compare(g, "edge_weight_cutoff", in_their_order(g, eqnn_map(t, EQNN_SUS, 0, 0), graph));
    eqnn_tensor *Y = eqnn_spherical_harmonics(r, o->lmax < 0 ? 0 : o->lmax, &unit);
    x = eqnn_enter(x, "net");
    eqnn_tensor *q = eqnn_irreps_linear(x, "to_q", o->q, NULL);
    compare(g, "q", eqnn_to_e3nn(q));
    const eqnn_product *p = eqnn_product_full(g->c, eqnn_label_of(x), eqnn_label_of(Y),
                                              eqnn_irreps_make(g->c, o->k), NULL);
    eqnn_tensor *w =
        eqnn_fc(b, "fc_k", eqnn_format(g->c, "%d,%d", o->hidden, eqnn_product_weights(p)), &fc);
    eqnn_tensor *k = eqnn_tensor_product(eqnn_gather(x, graph), Y, w, p);
    eqnn_tensor *logit =
        eqnn_fully_connected(eqnn_gather_target(q, graph), k, "dot_product", "1x0e", NULL);
    compare(g, "logit", in_their_order(g, eqnn_leave(logit), graph));
}

static void attention_settings(golden *g, eqnn_attention_opts *o, char text[4][512])
{
    char number[512];
    memset(o, 0, sizeof *o);
    o->q = meta_text(g, "irreps_q", text[0]);
    o->k = meta_text(g, "irreps_k", text[1]);
    o->out = meta_text(g, "irreps_out", text[2]);
    o->radius = atof(meta_text(g, "max_radius", number));
    o->lmax = atoi(meta_text(g, "sh_lmax", number));
    if (o->lmax == 0) o->lmax = -1; /* 0 is the default */
    o->basis = atoi(meta_text(g, "num_bases", number));
    o->hidden = atoi(meta_text(g, "mlp_hidden", number));
    o->act = eqnn_act_find(g->c, meta_text(g, "act", number));
    o->clamp = meta_true(g, "clamp_exp_0_1");
    o->mean = !strcmp(meta_text(g, "final_reduce", number), "mean");
}

/* Where features are the positions, d/d pos is the sum of both ways. */
static void attention_derivatives(golden *g, eqnn_tensor *out, eqnn_tensor *x, eqnn_tensor *pos)
{
    eqnn_tensor *dx[2], *both[2];
    both[0] = pos;
    both[1] = x;
    eqnn_tensor *y = eqnn_sum(eqnn_mul(out, matrix(g, "cotangent", 0)));
    if (!eqnn_grads(y, both, 2, dx)) return;
    compare(g, "out", out);
    if (meta_true(g, "features_are_positions")) compare(g, "grad_pos", eqnn_add(dx[0], dx[1]));
    else compare(g, "grad_pos", dx[0]), compare(g, "grad_features", dx[1]);
    eqnn_backward(y);
    compare_gradients(g, "grad/", "net");
}

static void attention_case(golden *g, const char *title, int raw)
{
    char text[4][512];
    eqnn_attention_opts o;
    eqnn_tensor *alpha = NULL;
    begin(g, "");
    attention_settings(g, &o, text);
    eqnn_tensor *x = matrix(g, "features", 0), *pos = positions(g);
    eqnn_tensor *f = eqnn_from_e3nn(x, eqnn_irreps_make(g->c, meta_text(g, "irreps_in", text[3])));
    const eqnn_graph *graph = given_graph(g, eqnn_rows(pos));
    eqnn_attention(f, pos, graph, "net", &o); /* makes the weights */
    set_weights(g, "weight/", "net");
    check_weights(g, "weight/");
    o.weights = &alpha;
    o.raw = raw;
    eqnn_tensor *out = eqnn_attention(f, pos, graph, "net", &o);
    if (graph && alpha) compare(g, "alpha", in_their_order(g, alpha, graph));
    attention_derivatives(g, eqnn_to_e3nn(out), x, pos);
    if (graph && out) attention_steps(g, f, pos, graph, &o);
    /* Logits of the study's head reach 500, so in float they are known to 1e-4, which is the
       relative error of the weights that the clamp leaves alone. */
    end_within(g, title, 1e-10, strcmp(g->file, "attention_blog") ? 1e-5 : 3e-4);
}

static void attention(golden *g)
{
    attention_case(g, "softmax", 0);
    attention_case(g, "exp", 1);
}

/* Weights of edges in the file's order: its edges, then a loop for each node. */
static eqnn_tensor *gat_weights(golden *g, eqnn_tensor *alpha, int loops, int nodes)
{
    int n, m;
    int *src = integers(g, "edge_src", &n), *dst = integers(g, "edge_dst", &m);
    int *both = (int *)malloc((2 * (size_t)(n + loops) + 1) * sizeof(int));
    eqnn_graph_opts o;
    memset(&o, 0, sizeof o);
    o.sources = o.targets = nodes;
    for (int e = 0; e < n + loops; e++) {
        both[e] = e < n ? src[e] : e - n;
        both[n + loops + e] = e < n ? dst[e] : e - n;
    }
    const eqnn_graph *graph = eqnn_graph_make(g->c, n + loops, both, both + n + loops, &o);
    free(both);
    free(src);
    free(dst);
    return graph ? in_their_order(g, alpha, graph) : NULL;
}

static void gat_convs(golden *g)
{
    for (int k = 0; k < 64; k++) {
        char title[32];
        eqnn_gat_opts o;
        eqnn_tensor *alpha = NULL;
        snprintf(title, sizeof title, "case%d", k);
        if (!eqnn_file_meta(g->f, title)) break;
        begin(g, title);
        json *s = meta(g, title);
        memset(&o, 0, sizeof o);
        o.heads = json_int(json_get(s, "heads"), 1);
        o.mean = !json_true(json_get(s, "concat"), 1);
        o.slope = json_number(json_get(s, "negative_slope"), 0.2);
        o.given_edges = !json_true(json_get(s, "add_self_loops"), 1);
        eqnn_tensor *x = matrix(g, "x", 0), *a = matrix(g, "edge_attr", 0);
        const eqnn_graph *graph = given_graph(g, eqnn_rows(x));
        for (int pass = 0; pass < 2; pass++) {
            if (pass) o.weights = &alpha;
            eqnn_tensor *rows = graph ? eqnn_take(a, eqnn_ints_make(g->c, graph->edges,
                                                                    graph->order, eqnn_rows(a), 0))
                                      : NULL;
            eqnn_tensor *y =
                eqnn_gat_conv(x, rows, graph, "net", json_int(json_get(s, "out_channels"), 1), &o);
            if (!pass) { set_weights(g, "", "net"); continue; }
            compare(g, "out", y);
            int own = o.given_edges ? 0 : eqnn_rows(x);
    compare(g, "alpha", gat_weights(g, alpha, own, eqnn_rows(x)));
        }
        json_free(s);
        end(g);
    }
}

/* ---- training ------------------------------------------------------------------------------- */

/* Widths of the layers after the input, from the biases "<how>/init/I.bias": "16,16,36". */
static void mlp_widths(golden *g, const char *how, char out[256])
{
    out[0] = 0;
    for (int i = 0; i < 32; i++) {
        char name[64];
        eqnn_file *f;
        snprintf(name, sizeof name, "%s/init/%d.bias", how, i);
        const eqnn_entry *e = find_entry(g, name, &f);
        if (!e) return;
        snprintf(out + strlen(out), 256 - strlen(out), "%s%d", i ? "," : "", (int)e->count);
    }
}

static eqnn_tensor *mlp_loss(golden *g, const char *widths, int samples)
{
    eqnn_mlp_opts o;
    size_t n;
    double *pos = numbers(g, "pos", &n), *y = numbers(g, "y", &n);
    int cols = (int)n / samples;
    memset(&o, 0, sizeof o);
    o.linear = 1;
    eqnn_tensor *x = pos ? eqnn_from_double(g->c, samples, cols, pos) : NULL;
    eqnn_tensor *to = y ? eqnn_from_double(g->c, samples, cols, y) : NULL;
    free(pos);
    free(y);
    return eqnn_mse(eqnn_mlp(x, "mlp", widths, &o), to);
}

static void mlp_training(golden *g, const char *how)
{
    char widths[256], text[512], entry[64];
    double losses[1024], theirs_n;
    eqnn_file *f;
    const eqnn_entry *e = find_entry(g, "pos", &f);
    int samples = e ? (int)e->shape[0] : 1, steps = atoi(meta_text(g, "steps", text));
    eqnn_adam_opts o;
    memset(&o, 0, sizeof o);
    o.rate = atof(meta_text(g, "lr", text));
    o.decay = !strcmp(how, "AdamW") ? 0.01 : 0;
    if (o.decay > 0 && !strstr(meta_text(g, "optimisers", text), "decoupled weight_decay 0.01"))
        eqnn_fail(g->c, "golden: unknown optimisers: %s", text);
    mlp_widths(g, how, widths);
    mlp_loss(g, widths, samples); /* makes the weights */
    snprintf(entry, sizeof entry, "%s/init/", how);
    set_weights(g, entry, "mlp");
    eqnn_adam *adam = eqnn_adam_make(g->c, &o);
    for (int i = 0; i < steps && i < 1024; i++) {
        eqnn_tensor *loss = mlp_loss(g, widths, samples);
        losses[i] = eqnn_value(loss);
        eqnn_backward(loss);
        eqnn_adam_step(adam);
        eqnn_reset(g->c);
    }
    snprintf(entry, sizeof entry, "%s/losses", how);
    size_t n;
    double *theirs = numbers(g, entry, &n);
    theirs_n = (double)n;
    if (theirs && (int)theirs_n == steps) compare_numbers(g, entry, losses, theirs, n);
    else eqnn_fail(g->c, "golden: %s: %d steps, %d losses", how, steps, (int)n);
    free(theirs);
    for (int i = 0; i < eqnn_parameter_count(g->c); i++) {
        snprintf(entry, sizeof entry, "%s/final/%s", how, eqnn_parameter_name(g->c, i) + 4);
        compare(g, entry, eqnn_parameter_at(g->c, i));
    }
}

static void mlp(golden *g)
{
    static const char *const how[] = { "Adam", "AdamW" };
    for (int k = 0; k < 2; k++) {
        char prefix[32];
        snprintf(prefix, sizeof prefix, "%s/", how[k]);
        begin(g, "");
        mlp_training(g, how[k]);
        end_within(g, how[k], 1e-10, 1e-5);
    }
}

/* ---- grids on the sphere and on SO(3) ------------------------------------------------------- */

/* "quadrature/B": e3nn's weights of 2 B rings, whose sum is 1 / (2 B)^2. */
static void ring_weights(golden *g, const char *name)
{
    size_t n;
    double *theirs = numbers(g, name, &n), *ours = (double *)calloc(n + 1, sizeof(double));
    if (theirs && (int)n == 2 * atoi(strchr(name, '/') + 1)) {
        eqnn_s2grid_points((int)n, 1, NULL, ours);
        for (size_t i = 0; i < n; i++) theirs[i] *= (double)(n * n);
        compare_numbers(g, name, ours, theirs, n);
    } else {
        eqnn_fail(g->c, "golden: %s has %d numbers", name, (int)n);
    }
    free(theirs); free(ours);
}

/* Angles of the points, and the factors sqrt(2) sin(m a), 1, sqrt(2) cos(m a) of harmonics. */
static void grid_points(golden *g, int lmax, int beta, int alpha)
{
    size_t n, wide = (size_t)(2 * lmax + 1), most = (size_t)(beta * alpha) * (wide + 4);
    double *p = (double *)calloc(most, sizeof(double)),
           *angle = (double *)calloc(most, sizeof(double));
    double *betas = numbers(g, "betas", &n), *alphas = numbers(g, "alphas", &n),
           *sha = numbers(g, "sha", &n);
    if (betas && alphas && sha && n == wide * (size_t)alpha) {
        eqnn_s2grid_points(beta, alpha, p, NULL);
        for (int i = 0; i < beta; i++) angle[i] = acos(p[3 * i * alpha + 1]);
        compare_numbers(g, "betas", angle, betas, (size_t)beta);
        for (int j = 0; j < alpha; j++) {
            double a = atan2(p[3 * j], p[3 * j + 2]);
            angle[j] = a < -1e-9 ? a + 8 * atan(1) : a;
            for (int m = -lmax; m <= lmax; m++) {
                double t = m < 0 ? sin(-m * angle[j]) : cos(m * angle[j]);
                p[3 * (size_t)(alpha * beta) + (size_t)j * wide + (size_t)(lmax + m)] =
                    m ? sqrt(2) * t : t;
            }
        }
        compare_numbers(g, "alphas", angle, alphas, (size_t)alpha);
        compare_numbers(g, "sha", p + 3 * alpha * beta, sha, n);
    } else {
        eqnn_fail(g->c, "golden: %s has no angles of its grid", g->title);
    }
    free(p); free(angle); free(betas); free(alphas); free(sha);
}

static void s2_case(golden *g, const json *j)
{
    eqnn_grid_opts o;
    int lmax = json_int(json_get(j, "lmax"), -1);
    const eqnn_irreps *a = eqnn_irreps_spherical(g->c, lmax);
    memset(&o, 0, sizeof o);
    o.beta = json_int(json_get(j, "res_beta"), 0);
    o.alpha = json_int(json_get(j, "res_alpha"), 0);
    grid_points(g, lmax, o.beta, o.alpha);
    for (int k = 0; a && harmonics_kinds[k]; k++) {
        char name[64];
        o.kind = (eqnn_harmonics_kind)k;
        snprintf(name, sizeof name, "%s/x", harmonics_kinds[k]);
        eqnn_tensor *f = eqnn_to_s2grid(eqnn_from_e3nn(matrix(g, name, a->cols), a), &o);
        snprintf(name, sizeof name, "%s/signal", harmonics_kinds[k]);
        compare(g, name, f);
        snprintf(name, sizeof name, "%s/back", harmonics_kinds[k]);
        compare(g, name, eqnn_to_e3nn(eqnn_from_s2grid(f, a, &o)));
        snprintf(name, sizeof name, "%s/h", harmonics_kinds[k]);
        f = matrix(g, name, o.beta * o.alpha);
        snprintf(name, sizeof name, "%s/from_h", harmonics_kinds[k]);
        compare(g, name, eqnn_to_e3nn(eqnn_from_s2grid(f, a, &o)));
    }
}

static void s2act_case(golden *g, const json *j)
{
    static const char *const names[] = { "x" };
    const json *kwargs = json_get(j, "kwargs"), *res = json_get(j, "resolved_res");
    const eqnn_irreps *in = eqnn_irreps_make(g->c, json_text(json_get(j, "irreps"), NULL));
    eqnn_grid_opts o;
    memset(&o, 0, sizeof o);
    o.beta = json_int(json_at(res, 0), 0);
    if (json_int(json_at(res, 1), 0) != o.beta - 1)
        o.alpha = json_int(json_at(res, 1), 0); /* else by default */
    o.lmax_out = json_int(json_get(kwargs, "lmax_out"), 0);
    if (json_get(kwargs, "lmax_out") && o.lmax_out == 0) o.lmax_out = -1; /* 0 is the default */
    o.kind = (eqnn_harmonics_kind)find_word(
        g, harmonics_kinds, json_text(json_get(kwargs, "normalization"), "component"));
    eqnn_tensor *x = matrix(g, "x", 0);
    eqnn_act act = eqnn_act_find(g->c, json_text(json_get(j, "act"), NULL));
    eqnn_tensor *y = eqnn_s2_activation(eqnn_from_e3nn(x, in), act, &o);
    if (y && eqnn_label_of(y) != eqnn_irreps_make(g->c, json_text(json_get(j, "irreps_out"), NULL)))
        eqnn_fail(g->c, "golden: the result is %s", eqnn_label_of(y)->name);
    y = eqnn_to_e3nn(y);
    compare(g, "out", y);
    compare_inputs(g, y, &x, names, 1);
}

/* "SO3Activation(lmax_in=2,lmax_out=2,tanh,resolution=4), aspect_ratio 2": [copies of l][2l+1]
   are the elements of D in e3nn's order, row by row. */
static void so3act_case(golden *g)
{
    char text[512], act[32];
    int lmax, lmax_out, res, aspect, block[16][3];
    if (sscanf(meta_text(g, "so3act", text),
               "SO3Activation(lmax_in=%d,lmax_out=%d,%31[a-z_],resolution=%d), aspect_ratio %d",
               &lmax, &lmax_out, act, &res, &aspect) != 5 ||
        lmax < 0 || lmax > 15) {
        eqnn_fail(g->c, "golden: cannot read \"%s\"", text);
        return;
    }
    for (int l = 0; l <= lmax; l++) block[l][0] = 2 * l + 1, block[l][1] = l, block[l][2] = 1;
    eqnn_grid_opts o;
    memset(&o, 0, sizeof o);
    o.beta = 2 * res;
    o.alpha = 2 * aspect * res;
    o.lmax_out = lmax_out ? lmax_out : -1;
    eqnn_tensor *x = eqnn_from_e3nn(matrix(g, "x", 0),
                                    eqnn_irreps_blocks(g->c, (const int(*)[3])block, lmax + 1));
    eqnn_tensor *y = eqnn_so3_activation(x, eqnn_act_find(g->c, act), &o);
    compare(g, "out", eqnn_to_e3nn(y));
}

static void grids(golden *g)
{
    for (int i = 0; i < eqnn_file_count(g->f); i++) {
        const char *name = eqnn_file_entry(g->f, i)->name;
        if (strncmp(name, "quadrature/", 11)) continue;
        begin(g, "");
        ring_weights(g, name);
        end_within(g, name, 1e-10, 1e-10);
    }
    numbered(g, "s2_", s2_case);
    numbered(g, "s2act", s2act_case);
    if (!mark(g, "so3act/")) return;
    begin(g, "so3act");
    so3act_case(g);
    end(g);
}

/* ---- reduced tensor products
   ------------------------------------------------------------------ */

/* Where a column of e3nn's order stands in ours. */
static int our_column(const eqnn_irreps *a, int column)
{
    int b = 0;
    while (column >= a->block[b].start + a->block[b].copies * a->block[b].type->dim) b++;
    int at = column - a->block[b].start, d = a->block[b].type->dim;
    return a->block[b].start + at % d * a->block[b].copies + at / d;
}

/* "i=2x1e,k=1x2o" from {"i": "2x1e", "k": "2o"} */
static void index_irreps(const json *j, char *out, size_t room)
{
    size_t n = 0;
    out[0] = 0;
    for (const json *k = j ? j->first : NULL; k && n < room; k = k->next)
        n += (size_t)snprintf(out + n, room - n, "%s%s=%s", n ? "," : "", k->key, json_text(k, ""));
}

/* Columns of Q in e3nn's order: sum over s of column of index s. */
static void their_order(const eqnn_reduced *r, const double *Q, size_t size, double *out)
{
    size_t rows = (size_t)eqnn_reduced_out(r)->cols;
    for (size_t k = 0; k < size; k++) {
        size_t at = 0, step = 1, rest = k;
        for (int s = eqnn_reduced_indices(r) - 1; s >= 0; s--) {
            const eqnn_irreps *in = eqnn_reduced_in(r, s);
            at += step * (size_t)our_column(in, (int)(rest % (size_t)in->cols));
            rest /= (size_t)in->cols;
            step *= (size_t)in->cols;
        }
        for (size_t row = 0; row < rows; row++) out[row * size + k] = Q[row * size + at];
    }
}

/* Q^T Q of rows first..first+n-1 */
static void projector(const double *Q, size_t size, int first, int n, double *P)
{
    memset(P, 0, size * size * sizeof(double));
    for (size_t row = (size_t)first; row < (size_t)(first + n); row++)
        for (size_t i = 0; i < size; i++)
            for (size_t k = 0; k < size; k++)
                P[i * size + k] += Q[row * size + i] * Q[row * size + k];
}

/* Our product of random vectors, put back together, against their projection of the tensor x_i
   x_j .. */
static void reduced_values(golden *g, const eqnn_reduced *r, const double *Q, const double *theirs,
                           size_t size)
{
    eqnn_tensor *x[7] = { NULL };
    int n = eqnn_reduced_indices(r), rows = eqnn_reduced_out(r)->cols;
    double *T = (double *)calloc(3 * size, sizeof(double));
    for (int s = 0; s < n; s++) {
        const eqnn_irreps *in = eqnn_reduced_in(r, s);
        x[s] = eqnn_from_e3nn(eqnn_normal(g->c, eqnn_format(g->c, "x%d", s), 1, in->cols), in);
    }
    const eqnn_real *z = eqnn_data(eqnn_reduced_product(x, r));
    for (size_t k = 0; T && k < size; k++) {
        size_t rest = k;
        T[k] = 1;
        for (int s = n - 1; s >= 0; s--) {
            const eqnn_irreps *in = eqnn_reduced_in(r, s);
            T[k] *= eqnn_at(x[s], 0, our_column(in, (int)(rest % (size_t)in->cols)));
            rest /= (size_t)in->cols;
        }
    }
    for (size_t row = 0; T && z && row < (size_t)rows; row++) {
        double sum = 0;
        for (size_t k = 0; k < size; k++) sum += theirs[row * size + k] * T[k];
        for (size_t k = 0; k < size; k++) {
            T[size + k] += theirs[row * size + k] * sum;
            T[2 * size + k] += Q[row * size + k] * (double)z[row];
        }
    }
    if (T && z) compare_numbers(g, "product", T + 2 * size, T + size, size);
    free(T);
}

/* Rows of equal irreps are a matter of taste, what they span is not: projectors, irrep by irrep. */
static void reduced_projectors(golden *g, const eqnn_reduced *r, const double *theirs,
                               const double *norm, size_t size)
{
    const eqnn_irreps *out = eqnn_reduced_out(r);
    size_t n = (size_t)out->cols * size;
    double *Q = (double *)calloc(2 * n, sizeof(double)),
           *P = (double *)calloc(2 * size * size, sizeof(double));
    if (Q && P && eqnn_reduced_basis(r, Q + n)) their_order(r, Q + n, size, Q);
    for (int i = 0; Q && i < out->cols; i++) {
        double square = 0;
        for (size_t k = 0; k < size; k++)
            square += Q[(size_t)i * size + k] * Q[(size_t)i * size + k];
        compare_numbers(g, "row_norm_squared", &square, norm + i, 1);
    }
    for (int b = 0; Q && P && b < out->blocks; b++) {
        int count = out->block[b].copies * out->block[b].type->dim;
        projector(Q, size, out->block[b].start, count, P);
        projector(theirs, size, out->block[b].start, count, P + size * size);
        compare_numbers(g, "change_of_basis", P, P + size * size, size * size);
    }
    if (Q) reduced_values(g, r, Q, theirs, size);
    free(Q);
    free(P);
}

static void reduced_case(golden *g, const json *j)
{
    char irreps[512];
    size_t n, norms;
    const char *their_out = json_text(json_get(j, "irreps_out"), "");
    index_irreps(json_get(j, "irreps"), irreps, sizeof irreps);
    const eqnn_reduced *r =
        eqnn_reduced_make(g->c, json_text(json_get(j, "formula"), ""), irreps, NULL);
    const eqnn_irreps *out = eqnn_reduced_out(r);
    double *theirs = numbers(g, "change_of_basis", &n),
           *norm = numbers(g, "row_norm_squared", &norms);
    if (out) compare_value(g, "rank", out->cols);
    if (out && strcmp(out->name, their_out))
        eqnn_fail(g->c, "golden: %s: ours is %s, theirs %s", g->title, out->name, their_out);
    else if (out && theirs && norm && norms == (size_t)out->cols && norms && n % norms == 0)
        reduced_projectors(g, r, theirs, norm, n / norms);
    else
        eqnn_fail(g->c, "golden: %s: %d rows", g->title, (int)norms);
    free(theirs);
    free(norm);
}

static void reduced_products(golden *g) { numbered(g, "case", reduced_case); }

/* ---- data sets ------------------------------------------------------------------------------ */

/* An entry as long as it must be, or NULL and an error. */
static double *numbers_of(golden *g, const char *name, size_t count)
{
    size_t n;
    double *v = numbers(g, name, &n);
    if (!v || n == count) return v;
    eqnn_fail(g->c, "golden: %s has %d numbers, not %d", name, (int)n, (int)count);
    free(v);
    return NULL;
}

static void compare_list(golden *g, const char *name, const double *ours, size_t count)
{
    double *theirs = numbers_of(g, name, count);
    if (theirs) compare_numbers(g, name, ours, theirs, count);
    free(theirs);
}

static void dataset_scales(golden *g, const eqnn_task *t, int n, const double *x, const double *y)
{
    double scale[20], mean[9], deviation[9];
    char name[64];
    eqnn_task_scales(t, n, x, y, scale, mean, deviation);
    snprintf(name, sizeof name, "%s.stats_xscale", t->name);
    compare_list(g, name, scale, (size_t)t->in);
    snprintf(name, sizeof name, "%s.stats_ymean", t->name);
    compare_list(g, name, mean, (size_t)t->out);
    snprintf(name, sizeof name, "%s.stats_ystd", t->name);
    compare_list(g, name, deviation, (size_t)t->out);
}

static void dataset_task(golden *g, const char *task)
{
    char name[64];
    size_t count = 0;
    const eqnn_task *t = eqnn_task_find(g->c, task);
    snprintf(name, sizeof name, "%s.x", task);
    double *x = numbers(g, name, &count);
    int n = t ? (int)count / t->in : 0;
    double *y = (double *)calloc((size_t)n * 9 + 1, sizeof *y);
    snprintf(name, sizeof name, "%s.y", task);
    if (t && x && y) {
        eqnn_task_targets(t, n, x, y);
        compare_list(g, name, y, (size_t)n * (size_t)t->out);
        if (t->vector) dataset_scales(g, t, n, x, y);
    }
    free(x); free(y);
}

/* Energy and angular momentum of states [n][12]; spin NULL: not asked for. */
static void dataset_states(golden *g, const double *z, size_t n, const char *energy,
                           const char *spin)
{
    const eqnn_system *s = eqnn_system_find(g->c, "springs");
    double *v = (double *)calloc(n + 1, sizeof *v);
    for (size_t i = 0; v && i < n; i++) v[i] = s->energy(s, z + 12 * i);
    if (v) compare_list(g, energy, v, n);
    for (size_t i = 0; v && i < n; i++) v[i] = s->spin(s, z + 12 * i);
    if (v && spin) compare_list(g, spin, v, n);
    free(v);
}

static void dataset_pendulum(golden *g)
{
    size_t count;
    const eqnn_system *s = eqnn_system_find(g->c, "springs");
    double *z = numbers(g, "pendulum.z", &count), *dz = (double *)calloc(count + 1, sizeof *dz);
    for (size_t i = 0; z && dz && i < count / 12; i++) s->field(s, z + 12 * i, dz + 12 * i);
    if (z && dz) compare_list(g, "pendulum.dzdt", dz, count);
    if (z) dataset_states(g, z, count / 12, "pendulum.H", NULL);
    free(z); free(dz);
}

static void dataset_rollout(golden *g)
{
    size_t count, m;
    const eqnn_system *s = eqnn_system_find(g->c, "springs");
    double *z0 = numbers(g, "pendulum.rollout_z0", &count);
    double *t = numbers(g, "pendulum.rollout_t", &m);
    double *z = (double *)calloc(count * m + 1, sizeof *z);
    if (z0 && t && z && eqnn_system_run(g->c, s, 0, (int)count / 12, z0, t, (int)m, z)) {
        compare_list(g, "pendulum.rollout_z", z, count * m);
        dataset_states(g, z, count / 12 * m, "pendulum.rollout_H", "pendulum.rollout_Lz");
    }
    free(z0); free(t); free(z);
}

static void datasets(golden *g)
{
    static const char *const tasks[] = { "inertia", "o5", "particle" };
    char name[64];
    for (int k = 0; k < 3; k++) {
        begin(g, "");
        snprintf(name, sizeof name, "%s.x", tasks[k]);
        if (!has(g, name)) { eqnn_free(g->c); continue; }
        dataset_task(g, tasks[k]);
        end_within(g, tasks[k], 1e-12, 1e-12);
    }
    for (int rollout = 0; rollout < 2; rollout++) {
        begin(g, "");
        if (!has(g, rollout ? "pendulum.rollout_z0" : "pendulum.z")) { eqnn_free(g->c); continue; }
        if (rollout) dataset_rollout(g);
        else dataset_pendulum(g);
        end_within(g, rollout ? "pendulum rollout" : "pendulum", rollout ? 1e-6 : 1e-12,
                   rollout ? 1e-6 : 1e-12);
    }
}

/* States of six particles: z0 and the constants of the file side by side, [n][dim]. */
static double *physics_states(golden *g, const eqnn_system *s, const char *z0, const char *mass,
                              const char *stiffness, int *n)
{
    size_t count, moving = (size_t)(2 * s->particles * s->axes), d = (size_t)s->dim, m, k;
    double *x = numbers(g, z0, &count), *a = numbers(g, mass, &m);
    double *b = stiffness ? numbers(g, stiffness, &k) : NULL, *z = NULL;
    *n = (int)(count / moving);
    if (count % moving || m * moving != count * (size_t)s->particles || (b && k != m)) {
        eqnn_fail(g->c, "golden: %s and its constants are of different sizes", z0);
        *n = 0;
        free(a); free(b);
        a = b = NULL;
    }
    if (x && a && (b || !stiffness)) z = (double *)malloc((count / moving + 1) * d * sizeof *z);
    for (size_t i = 0; z && i < (size_t)*n; i++) {
        memcpy(z + i * d, x + i * moving, moving * sizeof *z);
        for (size_t p = 0; p < (size_t)s->particles; p++) {
            double *given = z + i * d + moving + p * (size_t)s->given;
            given[0] = a[(size_t)s->particles * i + p];
            if (b) given[1] = b[(size_t)s->particles * i + p];
        }
    }
    free(x); free(a); free(b);
    return z;
}

/* H and dz/dt, each where it has a name. */
static void physics_values(golden *g, const eqnn_system *s, const double *z, int n,
                           const char *energy, const char *field)
{
    int moving = 2 * s->particles * s->axes;
    double *H = (double *)calloc((size_t)n + 1, sizeof *H), dz[256];
    double *all = (double *)calloc((size_t)(n * moving) + 1, sizeof *all);
    for (int i = 0; H && all && i < n; i++) {
        H[i] = s->energy(s, z + i * s->dim);
        s->field(s, z + i * s->dim, dz);
        memcpy(all + i * moving, dz, (size_t)moving * sizeof *dz);
    }
    if (H && all) compare_list(g, energy, H, (size_t)n);
    if (H && all && field) compare_list(g, field, all, (size_t)(n * moving));
    free(H); free(all);
}

/* Trajectories on the grid of so many times up to end, compared at the times of time_index. */
static void physics_run(golden *g, const eqnn_system *s, const double *z0, int n, int grid,
                        double end, int steps, const char *at, const char *name)
{
    int m, moving = 2 * s->particles * s->axes, *index = integers(g, at, &m);
    for (int k = 0; k < m; k++)
        if (index[k] < 0 || index[k] >= grid)
            eqnn_fail(g->c, "golden: time %d is none of %d", index[k], grid);
    size_t all = (size_t)n * (size_t)grid;
    double *times = (double *)calloc((size_t)grid, sizeof *times);
    double *z = (double *)calloc(all * (size_t)s->dim + 1, sizeof *z);
    double *ours = (double *)calloc((size_t)(n * m * moving) + 1, sizeof *ours);
    for (int k = 0; times && k < grid; k++) times[k] = end * k / (grid - 1);
    if (index && times && z && ours && eqnn_system_run(g->c, s, -steps, n, z0, times, grid, z)) {
        for (int i = 0; i < n * m; i++)
            memcpy(ours + i * moving, z + (i / m * grid + index[i % m]) * s->dim,
                   (size_t)moving * sizeof *ours);
        compare_list(g, name, ours, (size_t)(n * m * moving));
    }
    free(index); free(times); free(z); free(ours);
}

static void physics_springs(golden *g)
{
    eqnn_system s;
    int n;
    int particles = side_of(g, "spring.masses", 1);
    if (!eqnn_system_particles(g->c, "coupled", particles, 2, &s)) return;
    double *z = physics_states(g, &s, "spring.z0", "spring.masses", "spring.k", &n);
    if (z) {
        int m, *index = integers(g, "spring.time_index", &m);
        double times[500], *theirs = numbers_of(g, "spring.times", (size_t)m);
        for (int k = 0; theirs && k < m && k < 500; k++) times[k] = 5.0 * index[k] / 499;
        if (theirs) compare_numbers(g, "spring.times", times, theirs, (size_t)m);
        free(theirs); free(index);
        physics_values(g, &s, z, n, "spring.H0", "spring.dz0");
        physics_run(g, &s, z, n, 500, 5, 1, "spring.time_index", "spring.zs");
        physics_run(g, &s, z, n, 500, 5, 16, "spring.time_index", "spring.zs_fine");
    }
    free(z);
}

static void physics_planets(golden *g)
{
    eqnn_system s;
    int n;
    int particles = side_of(g, "nbody.masses", 1);
    if (!particles) return;
    int axes = side_of(g, "nbody.z0", 1) / (2 * particles);
    if (!eqnn_system_particles(g->c, "planets", particles, axes, &s)) return;
    double *z = physics_states(g, &s, "nbody.z0", "nbody.masses", NULL, &n);
    if (z) {
        physics_values(g, &s, z, n, "nbody.H0", "nbody.dz0");
        physics_run(g, &s, z, n, 200, 2, 1, "nbody.time_index", "nbody.zs");
        eqnn_system_particles(g->c, "moons", particles, axes, &s);
        for (int i = 0; i < n * s.dim; i++) z[i] *= i % s.dim < 2 * particles * axes ? 0.15 : 1;
        if (has(g, "nbody_lt.H0")) physics_values(g, &s, z, n, "nbody_lt.H0", NULL);
    }
    free(z);
}

static void physics(golden *g)
{
    begin(g, "");
    if (has(g, "spring.z0")) {
        physics_springs(g);
        end_within(g, "springs", 1e-9, 1e-9);
    } else eqnn_free(g->c);
    begin(g, "");
    if (has(g, "nbody.z0")) {
        physics_planets(g);
        end_within(g, "planets", 1e-9, 1e-9);
    } else eqnn_free(g->c);
}

/* n numbers of an entry whose name begins with the example, into out. */
static void constellation_take(golden *g, int example, const char *what, double *out, size_t n)
{
    char name[64];
    snprintf(name, sizeof name, "s%d.%s", example, what);
    double *v = numbers_of(g, name, n);
    if (v) memcpy(out, v, n * sizeof *v);
    free(v);
}

static void constellation_take_ints(golden *g, int example, const char *what, int *out, int n)
{
    double v[EQNN_CONSTELLATION_POINTS] = { 0 };
    constellation_take(g, example, what, v, (size_t)n);
    for (int i = 0; i < n; i++) out[i] = (int)v[i];
}

static void constellation_features(golden *g, int k, const double *pos, const int *present)
{
    double distances[34 * 33], moments[34 * 10];
    char name[64];
    eqnn_point_distances(34, pos, present, distances);
    eqnn_point_moments(34, pos, present, 10, moments);
    snprintf(name, sizeof name, "s%d.feat_pairwise", k);
    if (has(g, name)) compare_list(g, name, distances, 34 * 33);
    snprintf(name, sizeof name, "s%d.feat_moments10", k);
    if (has(g, name)) compare_list(g, name, moments, 34 * 10);
}

/* Two copies of each pattern, in the published manner. */
static void constellation_case(golden *g, int k)
{
    eqnn_constellation_opts o;
    eqnn_constellation_draws d;
    double pos[68], there[34], many[4];
    int present[34], counts[4];
    char name[64];
    memset(&o, 0, sizeof o);
    memset(&d, 0, sizeof d);
    o.published = 1;
    constellation_take(g, k, "max_upscale", &o.upscale, 1);
    constellation_take(g, k, "global_rotation", &d.turn, 1);
    constellation_take(g, k, "global_translation", &d.move, 1);
    constellation_take(g, k, "u_angle", d.angle, 8);
    constellation_take(g, k, "u_scale", d.scale, 8);
    constellation_take(g, k, "u_trans", d.shift[0], 16);
    constellation_take(g, k, "noise", d.noise[0], 68);
    constellation_take_ints(g, k, "pattern_present", d.present, 8);
    constellation_take_ints(g, k, "perm", d.order, 34);
    if (!eqnn_constellation(g->c, &o, &d, pos, present, counts)) return;
    for (int i = 0; i < 34; i++) there[i] = present[i];
    for (int i = 0; i < 4; i++) many[i] = counts[i];
    snprintf(name, sizeof name, "s%d.corners", k);
    compare_list(g, name, pos, 68);
    snprintf(name, sizeof name, "s%d.presence", k);
    compare_list(g, name, there, 34);
    snprintf(name, sizeof name, "s%d.class_count", k);
    compare_list(g, name, many, 4);
    constellation_features(g, k, pos, present);
}

/* The file went through single precision. */
static void constellation(golden *g)
{
    char name[64];
    for (int k = 0; k < 1000; k++) {
        begin(g, "");
        snprintf(name, sizeof name, "s%d.corners", k);
        if (!has(g, name)) { eqnn_free(g->c); continue; }
        constellation_case(g, k);
        snprintf(name, sizeof name, "constellation %d", k);
        end_within(g, name, 2e-6, 2e-6);
    }
}

/* ---- matrix groups --------------------------------------------------------------------------- */

/* A row of a .tsv file: cells and their heads, cut out of text. */
typedef struct table_row { char *head[16], *cell[16]; int cells; char head_text[512]; } table_row;

/* The next line that is neither empty nor a comment. */
static char *next_row(char *line, int size, FILE *file)
{
    while (fgets(line, size, file))
        if (line[0] != '#' && line[strspn(line, " \t\r\n")]) return line;
    return NULL;
}

static int cut_row(char *line, char **cell)
{
    int n = 0;
    line[strcspn(line, "\r\n")] = 0;
    for (char *at = line; at && n < 16; n++) {
        cell[n] = at;
        at = strchr(at, '\t');
        if (at) *at++ = 0;
    }
    return n;
}

static const char *cell_of(golden *g, const table_row *r, const char *head)
{
    for (int i = 0; i < r->cells; i++)
        if (r->head[i] && !strcmp(r->head[i], head)) return r->cell[i];
    eqnn_fail(g->c, "golden: %s has no column \"%s\"", g->file, head);
    return "";
}

/* rep_in >> rep_out of a row; group "mixed": every atom names its own. */
static const eqnn_rep *maps_of_row(golden *g, const table_row *r)
{
    const char *name = cell_of(g, r, "group");
    const eqnn_group *group = strcmp(name, "mixed") ? eqnn_group_make(g->c, name) : NULL;
    const eqnn_rep *a = eqnn_rep_make(g->c, cell_of(g, r, "rep_in"), group);
    const eqnn_rep *b = eqnn_rep_make(g->c, cell_of(g, r, "rep_out"), group);
    double sizes[2] = { eqnn_rep_size(a), eqnn_rep_size(b) };
    double theirs[2] = { atof(cell_of(g, r, "size_in")), atof(cell_of(g, r, "size_out")) };
    compare_numbers(g, "size", sizes, theirs, 2);
    return eqnn_rep_map(a, b);
}

static void basis_dims_row(golden *g, const table_row *r)
{
    char title[128];
    const eqnn_rep *maps = maps_of_row(g, r);
    double ours = (double)eqnn_basis_dim(maps), theirs = atof(cell_of(g, r, "dim"));
    compare_numbers(g, "dim", &ours, &theirs, 1);
    snprintf(title, sizeof title, "%s: %s >> %s", cell_of(g, r, "group"), cell_of(g, r, "rep_in"),
             cell_of(g, r, "rep_out"));
    end_within(g, title, 0, 0);
}

/* Row k of P, column by column: the projections of unit vectors (pairs of complex ones). */
static void compare_projector(golden *g, const table_row *r)
{
    const eqnn_rep *maps = maps_of_row(g, r);
    size_t n = (size_t)eqnn_rep_size(maps), m, m2 = 0;
    int pairs = eqnn_group_complex(eqnn_group_make(g->c, cell_of(g, r, "group")));
    char name[128];
    if (!strcmp(cell_of(g, r, "group"), "mixed")) eqnn_clear(g->c);
    snprintf(name, sizeof name, "%s%s", cell_of(g, r, "name"), pairs ? ".re" : "");
    double *re = numbers(g, name, &m), *im = NULL, *v = (double *)calloc(2 * n + 1, sizeof *v);
    snprintf(name, sizeof name, "%s.im", cell_of(g, r, "name"));
    if (pairs) im = numbers(g, name, &m2);
    if (!re || m != n * n || (pairs && m2 != m)) eqnn_fail(g->c, "golden: a projector is missing");
    for (size_t k = 0; v && k < n && !eqnn_error(g->c); k++) {
        for (size_t i = 0; i < 2 * n; i++) v[i] = 0;
        v[k * (pairs ? 2 : 1)] = 1;
        eqnn_basis_project(maps, v);
        for (size_t i = 0; i < n; i++) {
            double error = pairs ? hypot(v[2 * i] - re[i * n + k], v[2 * i + 1] - im[i * n + k])
                                 : fabs(v[i] - re[i * n + k]);
            worse(g, cell_of(g, r, "name"), error);
        }
    }
    double ours = (double)eqnn_basis_dim(maps), rank = atof(cell_of(g, r, "rank"));
    compare_numbers(g, "rank", &ours, &rank, 1);
    free(re); free(im); free(v);
}

static void projectors_row(golden *g, const table_row *r)
{
    compare_projector(g, r);
    end_within(g, cell_of(g, r, "name"), 1e-9, 1e-9);
}

/* Every row of a .tsv file is a case. */
static void each_row(golden *g, const char *path, void (*row)(golden *, const table_row *))
{
    FILE *file = fopen(path, "r");
    enum { LINE = 1 << 16 };
    char *line = (char *)malloc(LINE);
    table_row r;
    memset(&r, 0, sizeof r);
    if (!file || !line || !next_row(r.head_text, sizeof r.head_text, file)) {
        begin(g, "");
        eqnn_fail(g->c, "golden: %s cannot be read", path);
        end_within(g, path, 0, 0);
    } else {
        int heads = cut_row(r.head_text, r.head);
        while (next_row(line, LINE, file)) {
            begin(g, "");
            r.cells = cut_row(line, r.cell);
            if (r.cells != heads) eqnn_fail(g->c, "golden: a row with %d cells", r.cells);
            row(g, &r);
        }
    }
    if (file) fclose(file);
    free(line);
}

/* NAME.safetensors with its NAME.tsv */
static void table_beside(golden *g, char path[1200])
{
    snprintf(path, 1200, "%.*s.tsv", (int)(strlen(g->path) - strlen(".safetensors")), g->path);
}

static void projectors(golden *g)
{
    char path[1200];
    table_beside(g, path);
    each_row(g, path, projectors_row);
}

/* "NAME.perms": the generators of that group of permutations, (h v)[i] = v[perm[i]] */
static void group_perms(golden *g)
{
    for (int e = 0; e < eqnn_file_count(g->f); e++) {
        char name[128];
        size_t n, same = 0;
        const double *h;
        snprintf(name, sizeof name, "%s", eqnn_file_entry(g->f, e)->name);
        if (!strstr(name, ".perms")) continue;
        begin(g, "");
        double *perm = numbers(g, name, &n);
        *strstr(name, ".perms") = 0;
        const eqnn_group *group = eqnn_group_make(g->c, name);
        size_t d = (size_t)eqnn_group_dim(group), count = (size_t)eqnn_group_discrete(group, &h);
        if (!group || !perm || n != count * d || !eqnn_group_permutation(group))
            eqnn_fail(g->c, "golden: %s has %d generators of %d places, not %d numbers", name,
                      (int)count, (int)d, (int)n);
        for (size_t i = 0; i < n && !eqnn_error(g->c); i++)
            same += h[i * d + (size_t)perm[i]] == 1;
        worse(g, name, (double)(n - same));
        free(perm);
        end_within(g, name, 0, 0);
    }
}

/* Tensors of each rank and gate scalars: the name lists them as n*T(p,q). */
static void uniform_rep_row(golden *g, const table_row *r)
{
    int channels = atoi(cell_of(g, r, "ch")), n, p, q, read;
    double ours[64] = { 0 }, theirs[64] = { 0 };
    const eqnn_rep *rep = eqnn_rep_uniform(eqnn_group_make(g->c, cell_of(g, r, "group")), channels);
    const char *name = eqnn_rep_name(rep), *counts = cell_of(g, r, "counts_by_rank");
    for (; sscanf(name, "%d*T(%d,%d)%n", &n, &p, &q, &read) == 3 && p + q < 64; name++) {
        ours[p + q] += n;
        name += read;
        if (*name != '+') break;
    }
    for (int i = 0; i < 64 && *counts; i++, counts += *counts == ',')
        theirs[i] = strtod(counts, (char **)&counts);
    compare_numbers(g, "counts", ours, theirs, 64);
    ours[0] = eqnn_rep_gates(rep);
    theirs[0] = atof(cell_of(g, r, "gates"));
    ours[1] = eqnn_rep_size(rep);
    theirs[1] = channels;
    compare_numbers(g, "gates and size", ours, theirs, 2);
    char title[128];
    snprintf(title, sizeof title, "%s, %d channels", cell_of(g, r, "group"), channels);
    end_within(g, title, 0, 0);
}

/* ---- layers of EMLP ------------------------------------------------------------------------- */

/* Entry "TAG.NAME" */
static const char *of_tag(const char *tag, const char *name)
{
    static char full[2][256];
    static int k;
    k = !k;
    snprintf(full[k], sizeof full[k], "%s.%s", tag, name);
    return full[k];
}

/* The text behind "word " up to the next ';' */
static void after_word(const char *text, const char *word, char out[256])
{
    const char *at = text ? strstr(text, word) : NULL;
    out[0] = 0;
    if (at) snprintf(out, 256, "%.*s", (int)strcspn(at + strlen(word), ";"), at + strlen(word));
    while (*out == ' ') memmove(out, out + 1, strlen(out));
}

/* column[k]: where the labelled columns have column k of r */
static void label_columns(golden *g, const eqnn_rep *r, int *column)
{
    int n = eqnn_rep_size(r);
    double *k = (double *)malloc(((size_t)n + 1) * sizeof *k);
    for (int i = 0; k && i < n; i++) k[i] = i;
    eqnn_tensor *x = k ? eqnn_from_rep(eqnn_from_double(g->c, 1, n, k), r) : NULL;
    for (int i = 0; x && i < n; i++) column[(int)eqnn_at(x, 0, i)] = i;
    free(k);
}

/* A raw weight [rows, cols] in the order of representations goes where the labels have it. */
static void set_raw(golden *g, const char *name, const char *entry, const int *row, const int *col)
{
    eqnn_tensor *w = eqnn_parameter(g->c, name);
    size_t n, rows = (size_t)eqnn_rows(w), cols = (size_t)eqnn_cols(w);
    double *v = numbers(g, entry, &n), *to = (double *)calloc(n + 1, sizeof *to);
    if (v && to && n == rows * cols) {
        for (size_t i = 0; i < n; i++) {
            size_t r = row ? (size_t)row[i / cols] : 0, k = (size_t)col[i % cols];
            to[r * cols + k] = v[i];
        }
        eqnn_set(w, to);
    }
    free(v);
    free(to);
}

static int block_at(const eqnn_label *a, int column)
{
    int b = 0;
    while (b + 1 < a->blocks && a->block[b + 1].start <= column) b++;
    return b;
}

static int copy_at(const eqnn_label *a, int column)
{
    const eqnn_block *k = &a->block[block_at(a, column)];
    return (column - k->start) % k->copies;
}

/* Term k of the bilinear layer: its slots in W say between which copies, its entries of x which
   copies serve. */
static void set_bilinear(golden *g, const char *tag, int k, const eqnn_label *a, const int *column)
{
    char name[64];
    int slots, copies, ng = a->cols;
    size_t n;
    snprintf(name, sizeof name, "bil%d.params", k);
    double *theta = numbers(g, of_tag(tag, name), &n);
    snprintf(name, sizeof name, "bil%d.x_index", k);
    int *x = integers(g, of_tag(tag, name), &copies);
    snprintf(name, sizeof name, "bil%d.w_slots", k);
    int *slot = integers(g, of_tag(tag, name), &slots), J = 0, m = 0, b = -1;
    if (theta && x && slot) {
        for (int i = 0; i < copies; i++)
            if (x[i] < 0 || x[i] >= ng) {
                eqnn_fail(g->c, "golden: column %d of %d", x[i], ng);
                x[i] = 0;
            }
        for (int i = 0; i < slots; i++)
            if (slot[i] < 0 || slot[i] >= ng * ng)
                eqnn_fail(g->c, "golden: slot %d of %d", slot[i], ng * ng), slot[i] = 0;
        if (eqnn_error(g->c)) { free(theta); free(x); free(slot); return; }
        b = block_at(a, column[x[0]]);
        J = copies / a->block[b].type->dim;
        m = slots / a->block[b].type->dim;
    }
    for (int i = 0; b >= 0 && i < m; i++) {
        int first = slot[i * a->block[b].type->dim], r = column[first / ng], c = column[first % ng];
        snprintf(name, sizeof name, "bilinear.theta.%d.%d", block_at(a, r), block_at(a, c));
        eqnn_tensor *w = eqnn_parameter(g->c, name);
        double *v = (double *)calloc((size_t)eqnn_rows(w) * (size_t)eqnn_cols(w) + 1, sizeof *v);
        for (int p = 0; v && p < eqnn_rows(w) * eqnn_cols(w); p++)
            v[p] = eqnn_at(w, p / eqnn_cols(w), p % eqnn_cols(w));
        int copies_t = a->block[block_at(a, r)].copies;
        for (int j = 0; v && j < J; j++)
            v[(j * copies_t + copy_at(a, r)) * eqnn_cols(w) + copy_at(a, c)] = theta[i * J + j];
        if (v) eqnn_set(w, v);
        free(v);
    }
    if (b >= 0) {
        double serving[64];
        for (int j = 0; j < J && j < 64; j++)
            serving[j] = 1 + copy_at(a, column[x[j * a->block[b].type->dim]]);
        snprintf(name, sizeof name, "bilinear.copies.%d", b);
        eqnn_set(eqnn_parameter(g->c, name), serving);
    }
    free(theta);
    free(x);
    free(slot);
}

/* One gated block: linear map with projected weights, 0.1 times a bilinear one, gate. */
static eqnn_tensor *emlp_layer(golden *g, const char *tag, const eqnn_rep *in, const eqnn_rep *mid,
                               const eqnn_rep *out, int check)
{
    eqnn_rep_linear_opts o;
    memset(&o, 0, sizeof o);
    o.projected = 1;
    eqnn_tensor *x = eqnn_from_rep(matrix(g, of_tag(tag, "x"), 0), in);
    eqnn_tensor *y = eqnn_rep_linear(x, "linear", eqnn_rep_label(mid), &o);
    if (check) compare(g, of_tag(tag, "y_linear"), eqnn_to_rep(y, mid));
    y = eqnn_add(y, eqnn_scale(eqnn_rep_bilinear(y, "bilinear", eqnn_rep_label(mid), NULL), 0.1));
    if (check) compare(g, of_tag(tag, "preact"), eqnn_to_rep(y, mid));
    y = eqnn_to_rep(eqnn_rep_gate(y, eqnn_rep_label(out)), out);
    if (check) compare(g, of_tag(tag, "y"), y);
    return y;
}

static void projected_entry(golden *g, const eqnn_rep *maps, const char *raw, const char *result)
{
    size_t n, m;
    double *w = numbers(g, raw, &n), *P = numbers(g, result, &m);
    if (w && P && n == m && eqnn_rep_size(maps) == (int)n && eqnn_basis_project(maps, w))
        compare_numbers(g, result, w, P, n);
    else eqnn_fail(g->c, "golden: \"%s\" cannot be projected", raw);
    free(w);
    free(P);
}

static void emlp_case(golden *g, const char *tag)
{
    char group[256], in_text[256], out_text[256], mid_text[320];
    const char *text = eqnn_file_meta(g->f, tag);
    int to_in[256], to_mid[256];
    begin(g, "");
    after_word(text, "group", group);
    after_word(text, "rep_in", in_text);
    after_word(text, "rep_out", out_text);
    const eqnn_group *G = eqnn_group_make(g->c, group);
    const eqnn_rep *in = eqnn_rep_make(g->c, in_text, G), *out = eqnn_rep_make(g->c, out_text, G);
    size_t ng = 0;
    free(numbers(g, of_tag(tag, "b_raw"), &ng));
    snprintf(mid_text, sizeof mid_text, "%s+%d*Scalar", out_text, (int)ng - eqnn_rep_size(out));
    if ((int)ng == eqnn_rep_size(out)) snprintf(mid_text, sizeof mid_text, "%s", out_text);
    const eqnn_rep *mid = eqnn_rep_make(g->c, mid_text, G);
    if (mid && ng <= 256 && eqnn_rep_size(in) <= 256 && emlp_layer(g, tag, in, mid, out, 0)) {
        label_columns(g, in, to_in);
        label_columns(g, mid, to_mid);
        set_raw(g, "linear.weight", of_tag(tag, "w_raw"), to_mid, to_in);
        set_raw(g, "linear.bias", of_tag(tag, "b_raw"), NULL, to_mid);
        for (int k = 0; k < 100; k++) {
            char name[32];
            snprintf(name, sizeof name, "bil%d.params", k);
            if (eqnn_error(g->c) || !has(g, of_tag(tag, name))) break;
            set_bilinear(g, tag, k, eqnn_rep_label(mid), to_mid);
        }
        emlp_layer(g, tag, in, mid, out, 1);
        projected_entry(g, eqnn_rep_map(in, mid), of_tag(tag, "w_raw"), of_tag(tag, "Pw_apply"));
        projected_entry(g, mid, of_tag(tag, "b_raw"), of_tag(tag, "Pb_apply"));
    }
    has(g, of_tag(tag, "gate_index")); /* their order of gates is seen in y */
    end_within(g, tag, 1e-10, 1e-5);
}

static void emlp_layers(golden *g)
{
    for (int i = 0; i < eqnn_file_metas(g->f); i++) {
        const char *text = eqnn_file_meta(g->f, eqnn_file_meta_key(g->f, i));
        if (text && strstr(text, "group ")) emlp_case(g, eqnn_file_meta_key(g->f, i));
    }
}

/* ---- Lie groups ------------------------------------------------------------------------------ */

/* "SO3.NAME" of the file */
static const char *lie_name(const char *group, const char *name, char out[128])
{
    snprintf(out, 128, "%s.%s", group, name);
    return out;
}

static eqnn_tensor *lie_matrix(golden *g, const char *group, const char *name, int cols)
{
    char full[128];
    return matrix(g, lie_name(group, name, full), cols);
}

static void lie_compare(golden *g, const char *group, const char *name, const eqnn_tensor *x)
{
    char full[128];
    compare(g, lie_name(group, name, full), x);
}

/* Their matrices: of groups that do not shift, without the last row and column. */
static eqnn_tensor *lie_theirs(golden *g, const eqnn_lie *G, eqnn_tensor *u, int side)
{
    int d = eqnn_lie_point_dim(G), index[16], n = 0;
    eqnn_tensor *m = eqnn_lie_matrix(G, u);
    for (int i = 0; side == d && i < d; i++)
        for (int k = 0; k < d; k++) index[n++] = i * (d + 1) + k;
    return side == d ? eqnn_columns(m, eqnn_ints_make(g->c, n, index, (d + 1) * (d + 1), 0)) : m;
}

/* log(exp(-b) exp(a)) by edges from 2k (b) to 2k+1 (a) */
static eqnn_tensor *lie_pairs_of(golden *g, const eqnn_lie *G, eqnn_tensor *u, eqnn_tensor *v)
{
    int n = eqnn_rows(u), *ends = (int *)malloc((2 * (size_t)n + 1) * sizeof *ends);
    eqnn_tensor *x[2] = { v, u };
    for (int i = 0; i < 2 * n; i++) ends[i] = i;
    eqnn_graph_opts o = { .targets = 2 * n, .sources = 2 * n };
    const eqnn_graph *graph = eqnn_graph_make(g->c, n, ends, ends + n, &o);
    free(ends);
    return eqnn_lie_log(G, eqnn_lie_between(G, u && v ? eqnn_stack(x, 2) : NULL, graph));
}

/* exp, log, inverse and brackets. Beside the exact logarithm: theirs loses its digits near pi. */
static void lie_exp_log(golden *g, const char *name, const eqnn_lie *G, int side)
{
    eqnn_tensor *a = lie_matrix(g, name, "alg", 0), *u = eqnn_lie_exp(G, a);
    lie_compare(g, name, "exp_ref", lie_theirs(g, G, u, side));
    lie_compare(g, name, "exp", lie_theirs(g, G, u, side));
    lie_compare(g, name, "log_ref", eqnn_lie_log(G, u));
    eqnn_tensor *pa = lie_matrix(g, name, "pair_a", 0), *pb = lie_matrix(g, name, "pair_b", 0);
    eqnn_tensor *ua = eqnn_lie_exp(G, pa);
    lie_compare(g, name, "inv", lie_theirs(g, G, eqnn_lie_inverse(G, ua), side));
    if (!strncmp(name, "SO3", 3) || !strncmp(name, "SE3", 3)) {
        eqnn_tensor *ea = eqnn_scale(pa, 0.1), *eb = eqnn_scale(pb, 0.1);
        lie_compare(g, name, "bracket", eqnn_lie_bracket(G, pa, pb));
        lie_compare(g, name, "bch3", eqnn_lie_bch(G, ea, eb, 3));
        lie_compare(g, name, "bch4", eqnn_lie_bch(G, ea, eb, 4));
    }
}

/* Distances of their pairs at four alphas, ours as they are. */
static void lie_distances(golden *g, const char *name, const eqnn_lie *G, eqnn_tensor *pairs)
{
    eqnn_tensor *alphas = matrix(g, "alphas", 1), *d[64] = { NULL };
    int n = eqnn_rows(alphas);
    for (int k = 0; k < n && k < 64; k++)
        d[k] = eqnn_lie_distance(G, pairs, eqnn_at(alphas, k, 0));
    lie_compare(g, name, "pair_dist", n && n <= 64 ? eqnn_concat_n(d, n) : NULL);
}

static void lie_group(golden *g, const char *name)
{
    char full[128];
    int side = !strncmp(name, "SE", 2) ? name[2] - '0' + 1 : name[strlen(name) - 1] - '0';
    const eqnn_lie *G = eqnn_lie_make(g->c, name);
    lie_exp_log(g, name, G, side);
    eqnn_tensor *a = lie_matrix(g, name, "pair_a", 0), *b = lie_matrix(g, name, "pair_b", 0);
    eqnn_tensor *ua = eqnn_lie_exp(G, a), *ub = eqnn_lie_exp(G, b), *theirs, *q = NULL;
    theirs = lie_matrix(g, name, "pair_log", 0);
    if (has(g, lie_name(name, "pair_q", full))) q = lie_matrix(g, name, "pair_q", 0);
    lie_distances(g, name, G, q ? eqnn_concat(theirs, q) : theirs);
    double before = g->worst;
    lie_compare(g, name, "pair_log", lie_pairs_of(g, G, ua, ub));
    lie_compare(g, name, "log", eqnn_lie_log(G, eqnn_lie_exp(G, lie_matrix(g, name, "alg", 0))));
    if (!golden_quiet)
        printf("       %s: exp, log, inverse, distance %.1e; their own log, pairs %.1e\n", name,
               before, g->worst);
    if (side >= 3 && name[2] == '3' && g->worst <= 2e-7)
        g->worst = before; /* their own error near pi: 1e-7 at pi - 1e-4 */
    end_within(g, name, 1e-12, 2e-6);
}

static void lie_shifts(golden *g, const char *name)
{
    const eqnn_lie *G = eqnn_lie_make(g->c, name);
    eqnn_tensor *a = lie_matrix(g, name, "pair_a", 0), *b = lie_matrix(g, name, "pair_b", 0);
    eqnn_tensor *pairs = name[1] == 'r' ? eqnn_concat(a, b) : lie_pairs_of(g, G, a, b);
    lie_compare(g, name, "pair_embed", pairs);
    lie_distances(g, name, G, pairs);
    end_within(g, name, 1e-12, 2e-6);
}

/* Their small-angle functions by ours: sin x/x, (x - sin x)/x^3, (1 - cos x)/x^2,
   (1 - x/2 cot(x/2))/x^2, x/sin x. */
static void lie_series(golden *g)
{
    eqnn_tensor *x = matrix(g, "series.x", 1), *t = eqnn_square(x), *h = eqnn_scale(x, 0.5);
    eqnn_tensor *s = eqnn_map(t, EQNN_SINC_ROOT, 0, 0), *ds = eqnn_map(t, EQNN_SINC_ROOT, 0, 1);
    eqnn_tensor *c2 = eqnn_square(eqnn_map(h, EQNN_SINC, 0, 0)), *w = eqnn_cos(h);
    c2 = eqnn_scale(c2, 0.5);
    compare(g, "series.sinc", s);
    compare(g, "series.cosc", c2);
    compare(g, "series.sincc", eqnn_add(c2, eqnn_scale(ds, 2)));
    /* (1 - b)/x^2 = -A'(w) sin(x/2)^2/x^2 */
    eqnn_tensor *ratio = eqnn_scale(eqnn_square(eqnn_map(h, EQNN_SINC, 0, 0)), -0.25);
    compare(g, "series.coscc", eqnn_mul(ratio, eqnn_map(w, EQNN_ARC, 0, 1)));
    compare(g, "series.sinc_inv", eqnn_reciprocal(eqnn_map(x, EQNN_SINC, 0, 0)));
    end_within(g, "small angles", 1e-9, 1e-5); /* their sinc_inv is wrong by 2.4e-10 at 0.07 */
}

static void lie_groups(golden *g)
{
    static const char *const names[] = { "SO2", "RxSO2", "SE2", "SO3", "SE3" };
    static const char *const shifts[] = { "T2", "T3", "Trivial2", "Trivial3" };
    char full[128];
    for (int k = 0; k < 9; k++) {
        const char *name = k < 5 ? names[k] : shifts[k - 5];
        begin(g, "");
        if (!has(g, lie_name(name, k < 5 ? "alg" : "pair_a", full))) { eqnn_free(g->c); continue; }
        if (k < 5) lie_group(g, name);
        else lie_shifts(g, name);
    }
    begin(g, "");
    if (has(g, "series.x")) lie_series(g);
    else eqnn_free(g->c);
}

/* Groups of matrices, or Lie groups? */
static void groups(golden *g)
{
    eqnn_file *f;
    if (find_entry(g, "alphas", &f)) lie_groups(g);
    else group_perms(g);
}

/* Every pair, row by row of their [n][n], of lifted points. */
static const eqnn_graph *lie_all_pairs(golden *g, int n, int sets)
{
    int *example = (int *)malloc(((size_t)n + 1) * sizeof *example);
    for (int i = 0; i < n; i++) example[i] = i / (n / sets);
    eqnn_graph_opts o = { .loops = 1, .example = example, .examples = sets };
    const eqnn_graph *graph = eqnn_complete_graph(g->c, n, &o);
    free(example);
    return graph;
}

/* How many lifts of a point: "NAME.abq" is [sets, lifts, lifts, width]. */
static int lift_samples(golden *g, const char *name, const char *what, int points)
{
    char full[128];
    int lifts = side_of(g, lie_name(name, what, full), 1);
    return points && lifts % points == 0 ? lifts / points : 0;
}

/* Rx's distance as published: the query's own angle takes the place of the group's part. */
static eqnn_tensor *lie_rx_distance(eqnn_tensor *pairs)
{
    eqnn_tensor *a = eqnn_slice(pairs, 0, 1), *angle = eqnn_slice(pairs, 1, 1);
    return eqnn_add(eqnn_scale(eqnn_abs(angle), 0.2), eqnn_scale(eqnn_abs(a), 0.8));
}

/* By how much of a turn about the first axis their rotation to each point, always the shortest, is
   ahead of ours: they differ near the negative axis, where the shortest has no limit. */
static eqnn_tensor *lie_ahead(golden *g, eqnn_tensor *x)
{
    const eqnn_lie *G = eqnn_lie_make(g->c, "SO3");
    int n = eqnn_rows(x);
    eqnn_tensor *u, *r = eqnn_norm(x), *part[4], *q;
    eqnn_lie_lift_given(G, x, eqnn_zeros(g->c, n, 1), 1, &u, &q);
    part[0] = eqnn_add(r, eqnn_slice(x, 0, 1));
    part[1] = eqnn_zeros(g->c, n, 1);
    part[2] = eqnn_neg(eqnn_slice(x, 2, 1));
    part[3] = eqnn_slice(x, 1, 1);
    q = eqnn_concat_n(part, 4);
    q = eqnn_lie_product(G, eqnn_lie_inverse(G, u), eqnn_div(q, eqnn_norm(q)));
    return eqnn_scale(eqnn_slice(eqnn_lie_log(G, q), 0, 1), 0.5 / acos(-1));
}

static eqnn_tensor *lie_draws(golden *g, const char *name, eqnn_tensor *x, int samples)
{
    if (!strcmp(name, "SE2")) { /* base angles -pi + 2 pi s/n and the points' own */
        eqnn_tensor *u = eqnn_repeat(matrix(g, "SE2.u", 1), samples);
        int n = eqnn_rows(u);
        double *base = (double *)malloc(((size_t)n + 1) * sizeof *base);
        for (int i = 0; i < n; i++) base[i] = (i % samples + 1.0) / samples - 0.5;
        u = eqnn_add(u, eqnn_from_double(g->c, n, 1, base));
        free(base);
        return u;
    }
    if (!strcmp(name, "SE3")) return matrix(g, "quat_raw", 4);
    if (strcmp(name, "SO3")) return NULL;
    /* theirs is the angle of a random rotation, 2 atan2(|xyz|, w): here as a fraction of a turn */
    eqnn_tensor *raw = matrix(g, "quat_raw", 4);
    eqnn_tensor *v = eqnn_norm(eqnn_slice(raw, 1, 3)), *w = eqnn_slice(raw, 0, 1);
    eqnn_tensor *turn = eqnn_scale(eqnn_atan2(v, w), 1 / acos(-1));
    return eqnn_add(turn, eqnn_repeat(lie_ahead(g, x), samples));
}

static void lift_case(golden *g, const char *name, const char *ours)
{
    char full[128];
    const eqnn_lie *G = eqnn_lie_make(g->c, ours);
    const char *points = eqnn_lie_point_dim(G) == 3 ? "points3" : "points2";
    int sets = side_of(g, points, 0), samples = lift_samples(g, name, "abq", side_of(g, points, 1));
    eqnn_tensor *x = matrix(g, points, 0), *u, *q;
    eqnn_lie_lift_given(G, x, lie_draws(g, name, x, samples), samples, &u, &q);
    const eqnn_graph *graph = u ? lie_all_pairs(g, eqnn_rows(u), sets) : NULL;
    eqnn_tensor *pairs = eqnn_lie_pairs(G, u, q, graph);
    lie_compare(g, name, "abq", pairs);
    if (has(g, lie_name(name, "a", full))) lie_compare(g, name, "a", eqnn_lie_log(G, u));
    if (has(g, lie_name(name, "q", full))) lie_compare(g, name, "q", q);
    lie_compare(g, name, "dist",
                !strcmp(name, "Rx") ? lie_rx_distance(pairs) : eqnn_lie_distance(G, pairs, 0.2));
    if (has(g, lie_name(name, "values", full))) {
        lie_compare(g, name, "values", eqnn_repeat(matrix(g, "values", 0), samples));
        lie_compare(g, name, "mask", eqnn_repeat(matrix(g, "mask", 1), samples));
    }
    end_within(g, name, 1e-9, 2e-5);
}

static void lift_canonical(golden *g, const char *name, int samples)
{
    char ours[64];
    int n = samples * eqnn_rows(matrix(g, "points2", 0));
    double *k = (double *)malloc(((size_t)n + 1) * sizeof *k);
    for (int i = 0; i < n; i++) k[i] = (double)(i % samples) / samples;
    snprintf(ours, sizeof ours, "SE(2)_canonical(%d)", samples);
    const eqnn_lie *G = eqnn_lie_make(g->c, ours);
    eqnn_tensor *u, *draws = eqnn_from_double(g->c, n, 1, k);
    free(k);
    eqnn_lie_lift_given(G, matrix(g, "points2", 0), draws, samples, &u, NULL);
    const eqnn_graph *graph = lie_all_pairs(g, n, side_of(g, "points2", 0));
    lie_compare(g, name, "abq", eqnn_lie_pairs(G, u, NULL, graph));
    end_within(g, name, 1e-12, 1e-5);
}

/* Elements between points: quaternion and shift, as they are or as a dual quaternion. */
static void lift_quaternions(golden *g, const char *name, int positive, int dual)
{
    const eqnn_lie *G = eqnn_lie_make(g->c, "SE3");
    eqnn_tensor *u, *raw = matrix(g, "quat_raw", 4), *w = eqnn_slice(raw, 0, 1);
    if (positive)
        raw = eqnn_mul(raw, eqnn_shift(eqnn_scale(eqnn_less(w, eqnn_zeros(g->c, 1, 1)), -2), 1));
    int sets = side_of(g, "points3", 0);
    eqnn_lie_lift_given(G, matrix(g, "points3", 0), raw,
                        lift_samples(g, name, "embed", side_of(g, "points3", 1)), &u, NULL);
    eqnn_tensor *e = u ? eqnn_lie_between(G, u, lie_all_pairs(g, eqnn_rows(u), sets)) : NULL;
    if (dual) { /* (q, (0, t) q / 2) */
        eqnn_tensor *q = eqnn_slice(e, 0, 4), *t = eqnn_slice(e, 4, 3);
        const eqnn_lie *H = eqnn_lie_make(g->c, "SO3");
        eqnn_tensor *zero = eqnn_zeros(g->c, eqnn_rows(t), 1);
        e = eqnn_concat(q, eqnn_scale(eqnn_lie_product(H, eqnn_concat(zero, t), q), 0.5));
    }
    lie_compare(g, name, "embed", e);
    end_within(g, name, 1e-12, 1e-5);
}

static void lifts(golden *g)
{
    static const char *const names[][2] = {
        { "Trivial2", "Trivial(2)" }, { "Trivial3", "Trivial(3)" }, { "T2", "T(2)" },
        { "T3", "T(3)" }, { "Tx", "Tx(2)" }, { "Ty", "Ty(2)" }, { "SO2", "SO(2)" },
        { "Rx", "Rx_published" }, { "RxSO2", "RxSO(2)" }, { "SE2", "SE(2)" }, { "SO3", "SO(3)" },
        { "SE3", "SE(3)" }
    };
    char full[128];
    for (int k = 0; k < 12; k++) {
        begin(g, "");
        if (has(g, lie_name(names[k][0], "abq", full))) lift_case(g, names[k][0], names[k][1]);
        else eqnn_free(g->c);
    }
    for (int k = 1; k < 100; k++) {
        char name[64];
        begin(g, "");
        snprintf(name, sizeof name, "SE2canonical%d", k);
        if (has(g, lie_name(name, "abq", full))) lift_canonical(g, name, k);
        else eqnn_free(g->c);
    }
    for (int k = 0; k < 3; k++) {
        static const char *const kinds_of[] = { "SE3quat7", "SE3quat7pos", "SE3dualquat" };
        begin(g, "");
        if (has(g, lie_name(kinds_of[k], "embed", full)))
            lift_quaternions(g, kinds_of[k], k == 1, k == 2);
        else eqnn_free(g->c);
    }
}

/* Distances of real points only: of example k, the real points are real[k][..]. */
typedef struct fps_case { const double *dists; int *place, n, sets, points; } fps_case;

static void fps_from(void *user, int from, int first, int n, double *out)
{
    const fps_case *f = (const fps_case *)user;
    int a = f->place[from];
    for (int i = 0; i < n; i++) {
        int b = f->place[first + i];
        out[i] = f->dists[(size_t)a * (size_t)f->points + (size_t)(b % f->points)];
    }
}

static void fps_share(golden *g, const fps_case *f, const int *example, const int *start,
                      const char *name, int count)
{
    eqnn_farthest_opts o = { .example = example, .examples = f->sets, .count = count,
                             .start = start };
    eqnn_ints *chosen = eqnn_farthest(g->c, f->n, 0, fps_from, (void *)(uintptr_t)f, &o);
    size_t m;
    double *theirs = numbers(g, name, &m), *ours = (double *)calloc(m + 1, sizeof *ours);
    int at = 0, n = eqnn_ints_count(chosen);
    const int *v = eqnn_ints_data(chosen);
    for (int e = 0; theirs && ours && e < f->sets; e++)
        for (int k = 0; k < count; k++) {
            int have = at < n && example[v[at]] == e;
            ours[e * count + k] = have ? f->place[v[at]] % f->points : theirs[e * count + k];
            at += have;
        }
    if (theirs && ours) compare_numbers(g, name, ours, theirs, m);
    free(theirs); free(ours);
}

static void fps(golden *g)
{
    fps_case f;
    size_t n, all;
    begin(g, "");
    memset(&f, 0, sizeof f);
    double *dists = numbers(g, "dists", &all), *mask = numbers(g, "mask", &n);
    f.sets = side_of(g, "mask", 0), f.points = side_of(g, "mask", 1);
    double *raw = numbers_of(g, "start_raw", (size_t)f.sets);
    f.dists = dists;
    f.place = (int *)calloc(n + 1, sizeof(int));
    int *example = (int *)calloc(n + 1, sizeof(int)), *start = (int *)calloc(n + 1, sizeof(int));
    int *valid = (int *)calloc(n + 1, sizeof(int));
    if (all != n * (size_t)f.points) eqnn_fail(g->c, "golden: distances of other points");
    for (int i = 0; mask && f.points && i < (int)n; i++) {
        if (mask[i] == 0) continue;
        valid[i / f.points]++;
        example[f.n] = i / f.points;
        f.place[f.n++] = i;
    }
    for (int e = 0; raw && e < f.sets; e++) start[e] = valid[e] ? (int)raw[e] % valid[e] : 0;
    for (int i = 0; i < eqnn_file_count(g->f) && dists && mask && raw && !eqnn_error(g->c); i++) {
        const eqnn_entry *e = eqnn_file_entry(g->f, i);
        if (!strncmp(e->name, "idx_", 4) && e->dims == 2)
            fps_share(g, &f, example, start, e->name, (int)e->shape[1]);
    }
    free(dists); free(mask); free(raw); free(f.place); free(example); free(start); free(valid);
    end_within(g, "farthest points", 0, 0);
}

/* Epochs out of 500, as steps of a ten-thousandth. */
static void misc_schedules(golden *g)
{
    size_t n;
    double *epoch = numbers(g, "sched.epoch", &n);
    double *ours = (double *)calloc(n + 1, sizeof *ours);
    eqnn_schedule s;
    memset(&s, 0, sizeof s);
    s.kind = EQNN_COSINE;
    s.rate = 1;
    s.least = 1e-3;
    s.overlap = 1;
    s.total = (int64_t)500 * 1000000000; /* a step is a billionth of an epoch */
    for (int k = 0; epoch && ours && k < 2; k++) {
        s.warmup = k ? s.total / 100 : 0;
        for (size_t i = 0; i < n; i++)
            ours[i] = eqnn_schedule_rate(&s, (int64_t)floor(epoch[i] * 1e9 + 0.5));
        compare_list(g, k ? "sched.warmcos500" : "sched.cos500", ours, n);
    }
    free(epoch); free(ours);
}

static void misc_images(golden *g)
{
    size_t n, m;
    int rows = side_of(g, "rot.image", -2), cols = side_of(g, "rot.image", -1);
    size_t one = (size_t)rows * (size_t)cols;
    double *angle = numbers(g, "rot.angle", &n), *in = numbers(g, "rot.image", &m);
    double *out = (double *)calloc(m + 1, sizeof *out);
    if (m != n * one) eqnn_fail(g->c, "golden: %d angles of other images", (int)n);
    for (size_t i = 0; angle && in && out && !eqnn_error(g->c) && i < n; i++)
        eqnn_image_turn(rows, cols, in + one * i, angle[i], 0, out + one * i);
    if (angle && in && out) compare_list(g, "rot.out", out, m);
    free(angle); free(in); free(out);
}

/* Random rotations of normal numbers, schedules, images. */
static void misc(golden *g)
{
    begin(g, "");
    if (has(g, "so3sample.quat_raw")) {
        eqnn_tensor *raw = matrix(g, "so3sample.quat_raw", 4), *u;
        const eqnn_lie *G = eqnn_lie_make(g->c, "SE3");
        eqnn_lie_lift_given(G, eqnn_zeros(g->c, eqnn_rows(raw), 3), raw, 1, &u, NULL);
        const eqnn_lie *H = eqnn_lie_make(g->c, "SO3");
        compare(g, "so3sample.R", lie_theirs(g, H, eqnn_slice(u, 0, 4), 3));
        end_within(g, "random rotations", 1e-12, 1e-6);
    } else eqnn_free(g->c);
    begin(g, "");
    if (has(g, "sched.epoch")) {
        misc_schedules(g);
        end_within(g, "schedules", 1e-9, 1e-9);
    } else eqnn_free(g->c);
    begin(g, "");
    if (has(g, "rot.image")) {
        misc_images(g);
        end_within(g, "turned images", 1e-12, 1e-12);
    } else eqnn_free(g->c);
}

/* ---- LieConv --------------------------------------------------------------------------------- */

/* Weights and buffers from all entries "TITLE/w.NAME". */
static void lie_weights(golden *g)
{
    char prefix[160];
    snprintf(prefix, sizeof prefix, "%s/w.", g->title);
    for (int i = 0; i < eqnn_file_count(g->f); i++) {
        const eqnn_entry *e = eqnn_file_entry(g->f, i);
        if (g->used[i] || strncmp(e->name, prefix, strlen(prefix))) continue;
        eqnn_tensor *w = eqnn_parameter(g->c, e->name + strlen(prefix));
        size_t n;
        double *v = numbers(g, e->name + strlen(g->title) + 1, &n);
        if (w && v && n == (size_t)eqnn_rows(w) * (size_t)eqnn_cols(w)) eqnn_set(w, v);
        else eqnn_fail(g->c, "golden: \"%s\" has no place in the network", e->name);
        free(v);
    }
}

/* "grad.NAME" of every parameter; what has none does not influence the loss. */
static void lie_gradients(golden *g)
{
    for (int i = 0; i < eqnn_parameter_count(g->c); i++) {
        char entry[256];
        snprintf(entry, sizeof entry, "grad.%s", eqnn_parameter_name(g->c, i));
        eqnn_tensor *dw = eqnn_gradient(eqnn_parameter_at(g->c, i));
        if (has(g, entry)) compare(g, entry, dw);
        for (int k = 0; !has(g, entry) && k < eqnn_cols(dw); k++)
            worse(g, entry, fabs(eqnn_at(dw, 0, k)));
    }
}

/* Padded examples as nodes of one graph: node k is row place[k] of theirs. */
typedef struct lie_pack {
    int sets, points, n;
    int *place, *example, *node; /* node [sets*points]: -1 where padded */
    eqnn_ints *rows;
} lie_pack;

static void lie_pack_make(golden *g, const char *mask, lie_pack *p)
{
    char full[256];
    eqnn_file *f;
    size_t n;
    memset(p, 0, sizeof *p);
    double *m = numbers(g, mask, &n);
    const eqnn_entry *e = find_entry(g, full_name(g, mask, full), &f);
    if (!m || !e || e->dims != 2 || n == 0) {
        eqnn_fail(g->c, "golden: \"%s\" is not [sets, points]", mask);
        free(m);
        return;
    }
    p->sets = (int)e->shape[0], p->points = (int)e->shape[1];
    p->place = (int *)malloc((n + 1) * sizeof(int));
    p->example = (int *)malloc((n + 1) * sizeof(int));
    p->node = (int *)malloc((n + 1) * sizeof(int));
    for (int i = 0; i < (int)n; i++) {
        p->node[i] = m[i] != 0 ? p->n : -1;
        if (m[i] == 0) continue;
        p->example[p->n] = i / p->points;
        p->place[p->n++] = i;
    }
    p->rows = eqnn_ints_make(g->c, p->n, p->place, (int)n, 0);
    free(m);
}

static void lie_pack_free(lie_pack *p) { free(p->place); free(p->example); free(p->node); }

/* Rows of theirs that are points. */
static eqnn_tensor *lie_packed(golden *g, const lie_pack *p, const char *name)
{
    return eqnn_take(matrix(g, name, 0), p->rows);
}

/* Theirs at the points, 0 elsewhere, against ours. */
static void lie_compare_packed(golden *g, const lie_pack *p, const char *name, eqnn_tensor *x)
{
    eqnn_tensor *theirs = lie_packed(g, p, name);
    size_t n = (size_t)eqnn_rows(x) * (size_t)eqnn_cols(x);
    double *a = (double *)malloc((n + 1) * sizeof *a), *b = (double *)malloc((n + 1) * sizeof *b);
    if (!x || !theirs || eqnn_rows(x) != eqnn_rows(theirs) || eqnn_cols(x) != eqnn_cols(theirs))
        eqnn_fail(g->c, "golden: \"%s\" has another shape", name);
    for (size_t i = 0; !eqnn_error(g->c) && i < n; i++)
        a[i] = (double)eqnn_data(x)[i], b[i] = (double)eqnn_data(theirs)[i];
    if (!eqnn_error(g->c)) compare_numbers(g, name, a, b, n);
    free(a); free(b);
}

/* All pairs of an example; distances from "dist", or none. */
static eqnn_lie_cloud lie_cloud(golden *g, const lie_pack *p, int distances)
{
    eqnn_graph_opts o = { .example = p->example, .examples = p->sets, .loops = 1 };
    eqnn_lie_cloud cloud = { .graph = eqnn_complete_graph(g->c, p->n, &o) };
    int E = cloud.graph ? cloud.graph->edges : 0;
    int *entry = (int *)malloc(((size_t)E + 1) * sizeof *entry);
    for (int e = 0; e < E; e++) {
        int i = p->place[cloud.graph->target[e]], j = p->place[cloud.graph->source[e]];
        entry[e] = i * p->points + j % p->points;
    }
    eqnn_ints *index = eqnn_ints_make(g->c, E, entry, p->sets * p->points * p->points, 0);
    free(entry);
    cloud.pairs = eqnn_take(matrix(g, "abq", 0), index);
    if (distances) cloud.distance = eqnn_take(matrix(g, "dist", 1), index);
    return cloud;
}

static void lie_conv_case(golden *g, const char *name, const char *prefix)
{
    lie_pack p;
    eqnn_lie_conv_opts o = { .act = strstr(name, "relu") ? EQNN_RELU : EQNN_SILU,
                             .norm = strstr(name, "_bn_") != NULL,
                             .sum = strstr(name, "_sum") != NULL,
                             .fill = strstr(name, "train") ? 0.5 : 1. / 3, .published = 1 };
    begin(g, name);
    eqnn_training(g->c, 0);
    lie_pack_make(g, "mask", &p);
    eqnn_lie_cloud cloud = lie_cloud(g, &p, 1);
    eqnn_tensor *x = lie_packed(g, &p, "vals");
    int cols = side_of(g, "w.linear.bias", 0);
    eqnn_lie_conv(x, &cloud, prefix, cols, &o);
    lie_weights(g);
    eqnn_training(g->c, strstr(name, "train") != NULL);
    lie_compare_packed(g, &p, "out", eqnn_lie_conv(x, &cloud, prefix, cols, &o));
    eqnn_commit(g->c);
    for (int k = 1; has(g, "after.r") && k < 8; k += 3)
        for (int v = 0; v < 2; v++) {
            char entry[64], *own = entry + strlen("after.");
            snprintf(entry, sizeof entry, "after.weightnet.%d.running_%s", k, v ? "var" : "mean");
            compare(g, entry, eqnn_parameter(g->c, own));
        }
    double before = g->worst;
    if (has(g, "after.r")) compare(g, "after.r", eqnn_parameter(g->c, "r"));
    if (g->worst < 1e-7) g->worst = before; /* their fill is a single-precision number */
    lie_pack_free(&p);
    end_within(g, name, 1e-10, 1e-5);
}

static void lie_convs(golden *g)
{
    char name[128];
    for (int k = 0; title_at(g, k, name); k++) lie_conv_case(g, name, "");
}

/* Batch norm over rows that are points is theirs under a mask. */
static void masked_norm(golden *g)
{
    lie_pack p;
    eqnn_norm_opts o = { .clamp = 1 };
    begin(g, "bn");
    snprintf(g->title, sizeof g->title, "%s", "");
    lie_pack_make(g, "mask", &p);
    eqnn_tensor *x = lie_packed(g, &p, "x");
    snprintf(g->title, sizeof g->title, "%s", "bn");
    eqnn_training(g->c, 0);
    eqnn_batch_norm(x, "", &o);
    lie_weights(g);
    snprintf(g->title, sizeof g->title, "%s", "");
    eqnn_training(g->c, 1);
    lie_compare_packed(g, &p, "out_train", eqnn_batch_norm(x, "", &o));
    eqnn_commit(g->c);
    compare(g, "after.running_mean", eqnn_parameter(g->c, "running_mean"));
    compare(g, "after.running_var", eqnn_parameter(g->c, "running_var"));
    eqnn_training(g->c, 0);
    lie_compare_packed(g, &p, "out_eval_after", eqnn_batch_norm(x, "", &o));
    lie_pack_free(&p);
    end_within(g, "masked batch norm", 1e-10, 1e-5);
}

/* Lifted points, every pair of an example. alpha: of the distance. */
static eqnn_lie_cloud lie_lifted(golden *g, const char *group, eqnn_tensor *x, const int *example,
                                 int examples, double alpha)
{
    eqnn_graph_opts o = { .example = example, .examples = examples, .loops = 1 };
    const eqnn_lie *G = eqnn_lie_make(g->c, group);
    eqnn_lie_cloud cloud = { .graph = eqnn_complete_graph(g->c, eqnn_rows(x), &o) };
    eqnn_tensor *u, *q;
    eqnn_lie_lift(G, x, "lift", 1, &u, &q);
    cloud.pairs = eqnn_lie_pairs(G, u, q, cloud.graph);
    cloud.distance = eqnn_lie_distance(G, cloud.pairs, alpha);
    return cloud;
}

/* Blocks, widths and columns of the result of a LieResNet, from its weights. */
static void lie_resnet_sizes(golden *g, eqnn_lie_resnet_opts *o, int widths[65], int *out)
{
    char name[64];
    o->layers = numbered_weights(g, "net.", 1, ".net.5.r");
    if (o->layers > 64) o->layers = 64;
    widths[0] = side_of(g, "w.net.0.module.weight", 0);
    for (int b = 1; b <= o->layers; b++) {
        snprintf(name, sizeof name, "w.net.%d.net.8.module.weight", b);
        widths[b] = side_of(g, name, 0);
    }
    snprintf(name, sizeof name, "w.net.%d.module.weight", o->layers + 3);
    *out = side_of(g, name, 0);
    o->widths = widths;
}

static void lie_resnet_case(golden *g, const char *name)
{
    lie_pack p;
    int norm = !strstr(name, "nobn"), widths[65], out;
    eqnn_lie_resnet_opts o = { .conv = { .norm = norm, .published = 1, .radius = 5 } };
    char group[64];
    begin(g, name);
    eqnn_training(g->c, 0);
    lie_resnet_sizes(g, &o, widths, &out);
    lie_pack_make(g, "mask", &p);
    snprintf(group, sizeof group, "%.*s", (int)strcspn(name, "_"), name);
    eqnn_tensor *h, *v = lie_packed(g, &p, "vals"), *dv, *x = lie_packed(g, &p, "x");
    eqnn_lie_cloud cloud = lie_lifted(g, group, x, p.example, p.sets, 0.2);
    eqnn_lie_resnet(v, &cloud, "", out, &o);
    lie_weights(g);
    eqnn_training(g->c, strstr(name, "train") != NULL);
    h = eqnn_linear(v, "net.0.module", widths[0], NULL);
    for (int b = 1; b <= o.layers; b++) {
        char block[32];
        snprintf(block, sizeof block, "net.%d", b);
        h = eqnn_lie_block(h, &cloud, NULL, block, widths[b], &o.conv);
        snprintf(block, sizeof block, "block%d", b - 1);
        if (has(g, block)) lie_compare_packed(g, &p, block, h);
    }
    eqnn_tensor *y = eqnn_lie_resnet(v, &cloud, "", out, &o);
    compare(g, "out", y);
    eqnn_tensor *loss = eqnn_sum(eqnn_mul(y, matrix(g, "loss_coef", 0)));
    dv = eqnn_grad(loss, v);
    lie_compare_packed(g, &p, "grad.vals", dv);
    eqnn_backward(loss);
    lie_gradients(g);
    lie_pack_free(&p);
    end_within(g, name, 1e-9, 1e-4);
}

static void lie_resnets(golden *g)
{
    char name[128];
    for (int k = 0; title_at(g, k, name); k++) lie_resnet_case(g, name);
}

static void lie_molecule(golden *g)
{
    lie_pack p;
    int widths[65], out;
    eqnn_lie_resnet_opts o = { .conv = { .norm = 1, .published = 1, .radius = 50 } };
    begin(g, "");
    eqnn_training(g->c, 0);
    lie_pack_make(g, "mask", &p);
    eqnn_tensor *v = lie_packed(g, &p, "features"), *x = lie_packed(g, &p, "positions");
    eqnn_lie_cloud cloud = lie_lifted(g, "T(3)", x, p.example, p.sets, 0.2);
    size_t n;
    double *charge = numbers(g, "charges", &n);
    for (int i = 0; charge && v && i < p.n; i++) /* species by powers of charge / 9 */
        for (int k = 0; k < 15; k++) {
            double z = charge[p.place[i]];
            double one = z == (k < 3 ? 1 : k / 3 + 5) ? pow(z / 9, k % 3) : 0;
            worse(g, "features", fabs(eqnn_at(v, i, k) - one) - test_eps(0, 1e-7));
        }
    free(charge);
    snprintf(g->title, sizeof g->title, "%s", "mol");
    lie_resnet_sizes(g, &o, widths, &out);
    eqnn_lie_resnet(v, &cloud, "", 1, &o);
    lie_weights(g);
    snprintf(g->title, sizeof g->title, "%s", "");
    compare(g, "out", eqnn_lie_resnet(v, &cloud, "", 1, &o));
    lie_pack_free(&p);
    end_within(g, "molecule", 1e-10, 1e-5);
}

/* Chosen nodes of sets with n nodes each. */
static eqnn_ints *lie_chosen(golden *g, const char *name, int n, int sets)
{
    int count, *v = integers(g, name, &count);
    for (int i = 0; v && i < count; i++) v[i] += i / (count / sets) * n;
    eqnn_ints *chosen = eqnn_ints_make(g->c, count, v, sets * n, 0);
    free(v);
    return chosen;
}

static void lie_image(golden *g)
{
    int widths[65], out, n = side_of(g, "coords", 1), sets = side_of(g, "coords", 0);
    eqnn_lie_resnet_opts o = { .conv = { .norm = 1, .published = 1 } };
    eqnn_ints *chosen[64] = { NULL };
    int *example = (int *)malloc(((size_t)(n * sets) + 1) * sizeof *example);
    for (int i = 0; i < n * sets; i++) example[i] = i / n;
    begin(g, "");
    eqnn_training(g->c, 0);
    eqnn_tensor *v = matrix(g, "image", 1), *x = matrix(g, "coords", 0);
    mark(g, "start"); /* where their choice began */
    snprintf(g->title, sizeof g->title, "%s", "img");
    lie_resnet_sizes(g, &o, widths, &out);
    snprintf(g->title, sizeof g->title, "%s", "");
    for (int b = 0, left = n; b < o.layers; b++) {
        char name[32];
        snprintf(name, sizeof name, "fps%d", b + 1);
        chosen[b] = has(g, name) ? lie_chosen(g, name, left, sets) : NULL;
        if (chosen[b]) left = side_of(g, name, 1);
    }
    o.chosen = chosen;
    eqnn_lie_cloud cloud = lie_lifted(g, "T(2)", x, example, sets, 0.2);
    eqnn_lie_resnet(v, &cloud, "", out, &o);
    snprintf(g->title, sizeof g->title, "%s", "img");
    lie_weights(g);
    snprintf(g->title, sizeof g->title, "%s", "");
    compare(g, "out", eqnn_lie_resnet(v, &cloud, "", out, &o));
    free(example);
    end_within(g, "image", 1e-10, 1e-5);
}

/* z [sets, (q, p)], both particle by particle, as rows of particles; and back. */
static eqnn_tensor *lie_state(eqnn_tensor *z, int particles, int back)
{
    if (back) {
        int sets = eqnn_rows(z) / particles;
        eqnn_tensor *q = eqnn_reshape(eqnn_slice(z, 0, 2), sets, 2 * particles);
        return eqnn_concat(q, eqnn_reshape(eqnn_slice(z, 2, 2), sets, 2 * particles));
    }
    int n = particles * eqnn_rows(z);
    eqnn_tensor *q = eqnn_reshape(eqnn_slice(z, 0, 2 * particles), n, 2);
    return eqnn_concat(q, eqnn_reshape(eqnn_slice(z, 2 * particles, 2 * particles), n, 2));
}

typedef struct lie_model {
    const char *name, *kind; /* a baseline's, or a group's */
    int energy;
    int layers, width;
    eqnn_particles particles;
    eqnn_tensor *H;
} lie_model;

static eqnn_tensor *lie_field(eqnn_tensor *z, double t, void *user)
{
    lie_model *m = (lie_model *)user;
    eqnn_lie_resnet_opts o = { .conv = { .published = 1 }, .layers = m->layers,
                               .width = m->width };
    eqnn_baseline_opts b = { .width = m->width, .layers = m->layers };
    const eqnn_lie *g = strchr(m->name, '_') ? eqnn_lie_make(eqnn_context(z), m->kind) : NULL;
    (void)t;
    eqnn_tensor *y = g ? eqnn_lie_energy(z, &m->particles, g, 1, 0.2, "", &o)
                       : eqnn_particle_baseline(z, &m->particles, m->kind, "", &b);
    m->H = y;
    return m->energy ? eqnn_hamiltonian_field(y, z) : y;
}

/* Every particle of a set sees all of it. */
static const eqnn_graph *lie_sets(golden *g, int sets, int particles)
{
    int n = sets * particles, *example = (int *)malloc(((size_t)n + 1) * sizeof *example);
    for (int i = 0; i < n; i++) example[i] = i / particles;
    eqnn_graph_opts o = { .example = example, .examples = sets, .loops = 1 };
    const eqnn_graph *graph = eqnn_complete_graph(g->c, n, &o);
    free(example);
    return graph;
}

static void lie_dynamics_case(golden *g, lie_model *m)
{
    size_t n;
    eqnn_ode_opts rule = { .method = EQNN_RK38 };
    begin(g, "");
    int sets = side_of(g, "sysP", 0), particles = side_of(g, "sysP", 1);
    int steps = side_of(g, "ts", 0);
    m->particles.graph = lie_sets(g, sets, particles);
    m->particles.constants = matrix(g, "sysP", 2);
    eqnn_tensor *z = lie_state(matrix(g, "z0", 4 * particles), particles, 0), *y[64] = { NULL };
    eqnn_tensor *sum = NULL, *target = matrix(g, "target", 4 * particles * steps);
    double *ts = numbers(g, "ts", &n);
    snprintf(g->title, sizeof g->title, "%s", m->name);
    if (strstr(m->name, "FC")) {
        m->layers = numbered_weights(g, "net.", 0, ".0.weight");
        m->width = side_of(g, "w.net.0.0.weight", 0);
    } else if (strstr(m->name, "OGN")) {
        m->layers = numbered_weights(g, "gnlayers.", 0, ".layer.edge_model.edge_mlp.0.weight");
        m->width = side_of(g, "w.gnlayers.0.layer.edge_model.edge_mlp.0.weight", 0);
    } else {
        m->layers = numbered_weights(g, "net.", 1, ".net.5.r");
        m->width = side_of(g, "w.net.0.module.weight", 0);
    }
    lie_field(z, 0, m);
    if (strstr(m->name, "OGN")) { /* layers that take no part in the result are not made here */
        mark(g, m->energy ? "HOGN/w.qlinear" : "OGN/w.gnlayers.0.layer.global");
        mark(g, m->energy ? "HOGN/w.plinear" : "OGN/w.gnlayers.0.layer.global");
    }
    lie_weights(g);
    compare(g, "dz", lie_state(lie_field(z, 0, m), particles, 1));
    if (m->energy) compare(g, "H", m->H);
    if (steps > 64) eqnn_fail(g->c, "golden: more than 64 times");
    else if (ts) eqnn_ode(lie_field, z, ts, steps, y, m, &rule);
    free(ts);
    for (int k = 0; k < steps && k < 64; k++) y[k] = lie_state(y[k], particles, 1);
    sum = eqnn_concat_n(y, steps);
    compare(g, "rollout", sum);
    sum = eqnn_mean(eqnn_square(eqnn_sub(sum, target)));
    compare_value(g, "loss", eqnn_value(sum));
    eqnn_backward(sum);
    lie_gradients(g);
    end_within(g, m->name, 1e-9, 1e-4);
}

static void lie_dynamics(golden *g)
{
    static const char *const baselines[] = { "FC", "HFC", "OGN", "HOGN" };
    static const char *const kinds_of[] = { "fc", "hfc", "ogn", "hogn" };
    char name[128];
    for (int k = 0; title_at(g, k, name); k++) {
        lie_model m;
        memset(&m, 0, sizeof m);
        m.name = name;
        m.energy = name[0] == 'H';
        if (!strncmp(name, "HLie_", 5)) m.kind = name + 5;
        for (int i = 0; i < 4; i++)
            if (!strcmp(name, baselines[i])) m.kind = kinds_of[i];
        if (m.kind) lie_dynamics_case(g, &m);
    }
}

/* ---- LieTransformer ------------------------------------------------------------------------- */

/* Their padded examples packed: real nodes, and pairs of them as edges. */
typedef struct packed {
    eqnn_ints *node, *edge; /* rows of [sets*points] and of [sets*points*points] */
    const eqnn_graph *graph;
    int sets, points;
} packed;

/* An entry that all cases share. */
static eqnn_tensor *common(golden *g, const char *name, int cols)
{
    char title[sizeof g->title];
    memcpy(title, g->title, sizeof title);
    g->title[0] = 0;
    eqnn_tensor *x = matrix(g, name, cols);
    memcpy(g->title, title, sizeof title);
    return x;
}

static packed pack(golden *g, const char *entry)
{
    packed p = { NULL, NULL, NULL, 0, 0 };
    char title[sizeof g->title];
    memcpy(title, g->title, sizeof title);
    g->title[0] = 0;
    p.sets = side_of(g, entry, 0), p.points = side_of(g, entry, 1);
    memcpy(g->title, title, sizeof title);
    eqnn_tensor *mask = common(g, entry, 1);
    int all = p.sets * p.points, N = p.points, n = 0, m = 0;
    int *node = (int *)malloc(((size_t)all + 1) * sizeof *node);
    int *example = (int *)malloc(((size_t)all + 1) * sizeof *example);
    int *edge = (int *)malloc(((size_t)all * (size_t)N + 1) * sizeof *edge);
    for (int i = 0; mask && i < all; i++) {
        if (eqnn_at(mask, i, 0) == 0) continue;
        example[n] = i / N;
        node[n++] = i;
        for (int j = i / N * N; j < i / N * N + N; j++)
            if (eqnn_at(mask, j, 0) != 0) edge[m++] = i * N + j % N;
    }
    eqnn_graph_opts o = { .example = example, .examples = p.sets, .loops = 1 };
    p.graph = eqnn_complete_graph(g->c, n, &o);
    p.node = eqnn_ints_make(g->c, n, node, all, 0);
    p.edge = eqnn_ints_make(g->c, m, edge, all * N, 0);
    free(node); free(example); free(edge);
    return p;
}

/* Weights and running statistics from "case/w.NAME"; ours stand under "m.NAME". */
static void attention_weights(golden *g)
{
    char prefix[160], name[256];
    int set = 0;
    size_t n, begin_at = (size_t)snprintf(prefix, sizeof prefix, "%s/w.", g->title);
    for (int i = 0; i < eqnn_file_count(g->f); i++) {
        const eqnn_entry *e = eqnn_file_entry(g->f, i);
        if (strncmp(e->name, prefix, begin_at)) continue;
        snprintf(name, sizeof name, "m.%.200s", e->name + begin_at);
        eqnn_tensor *w = eqnn_parameter(g->c, name);
        double *v = numbers(g, e->name + begin_at - 2, &n);
        if (v && w && n == (size_t)eqnn_rows(w) * (size_t)eqnn_cols(w)) eqnn_set(w, v);
        else eqnn_fail(g->c, "golden: no weight of ours is \"%s\" [%d]", name, (int)n);
        set += !strstr(name, ".running_");
        free(v);
    }
    if (set != eqnn_parameter_count(g->c))
        eqnn_fail(g->c, "golden: they have %d weights, we %d", set, eqnn_parameter_count(g->c));
}

/* The rows of theirs that are real. */
static void packed_compare(golden *g, const char *name, eqnn_tensor *ours, eqnn_ints *rows)
{
    eqnn_tensor *theirs = eqnn_take(matrix(g, name, 0), rows);
    size_t n = (size_t)eqnn_rows(theirs) * (size_t)eqnn_cols(theirs);
    double *a = (double *)calloc(2 * n + 1, sizeof *a), *b = a + n;
    if (eqnn_rows(ours) != eqnn_rows(theirs) || eqnn_cols(ours) != eqnn_cols(theirs)) {
        eqnn_fail(g->c, "golden: %s: ours is [%d,%d]", name, eqnn_rows(ours), eqnn_cols(ours));
    } else {
        for (size_t i = 0; i < n; i++) a[i] = (double)eqnn_data(ours)[i];
        for (size_t i = 0; i < n; i++) b[i] = (double)eqnn_data(theirs)[i];
        compare_numbers(g, name, a, b, n);
    }
    free(a);
}

static void self_attention_case(golden *g, const char *title, const char *kernel,
                                const char *attention, eqnn_act act)
{
    eqnn_tensor *logits = NULL, *y = NULL;
    eqnn_lie_attention_opts o = { .kernel = kernel, .attention = attention,
                                  .heads = meta_int(g, "heads", 4), .logits = &logits };
    int code = strlen(kernel) == 4; /* of what the originals are told, what they use */
    if (code && kernel[2] > '1') o.feature_dim = meta_int(g, "feature_embed_dim", 4);
    if (code || !strcmp(kernel, "mlp") || !strcmp(kernel, "location_only"))
        o.kernel_dim = meta_int(g, "kernel_dim", 8), o.act = act;
    begin(g, title);
    packed p = pack(g, "mask");
    eqnn_tensor *x = eqnn_take(common(g, "vals", 0), p.node);
    eqnn_tensor *pairs = eqnn_take(common(g, "abq", 0), p.edge);
    for (int k = 0; k < 2; k++) {
        y = eqnn_lie_attention(x, pairs, p.graph, "m", &o);
        if (k == 0) attention_weights(g);
    }
    packed_compare(g, "logits", logits, p.edge);
    packed_compare(g, "out", y, p.node);
    end(g);
}

static void self_attention(golden *g)
{
    static const char *const kernels[][2] = { { "mlp_", "mlp" },
                                              { "relpos_", "relative_position" },
                                              { "dot_only_", "dot_product_only" },
                                              { "loc_only_", "location_only" } };
    char title[128];
    for (int k = 0; title_at(g, k, title); k++) {
        const char *kernel = title[0] == 'k' && strlen(title) == 5 ? title + 1 : NULL;
        const char *fn = strstr(title, "dot_product") ? "dot_product"
                         : strstr(title, "norm_exp")  ? "norm_exp"
                                                      : "softmax";
        size_t n = strlen(title);
        eqnn_act act = n > 5 && !strcmp(title + n - 5, "_relu")       ? EQNN_RELU
                       : n > 9 && !strcmp(title + n - 9, "_softplus") ? EQNN_SOFTPLUS
                                                                      : EQNN_SILU;
        for (int i = 0; i < 4; i++)
            if (!strncmp(title, kernels[i][0], strlen(kernels[i][0]))) kernel = kernels[i][1];
        if (kernel) self_attention_case(g, title, kernel, title[0] == 'k' ? NULL : fn, act);
    }
}

/* d sum(loss_coef out) / d weights against grad.NAME; none there: the weight has no influence. */
static void attention_gradients(golden *g, eqnn_tensor *loss)
{
    char entry[256];
    eqnn_zero_gradients(g->c);
    eqnn_backward(loss);
    for (int i = 0; i < eqnn_parameter_count(g->c); i++) {
        snprintf(entry, sizeof entry, "grad.%.200s", eqnn_parameter_name(g->c, i) + 2);
        if (has(g, entry)) compare(g, entry, eqnn_gradient(eqnn_parameter_at(g->c, i)));
    }
}

static void lie_transformer_case(golden *g, const char *title, eqnn_lie_transformer_opts o)
{
    begin(g, title);
    if (!has(g, "out")) { eqnn_free(g->c); return; }
    packed p = pack(g, "mask");
    eqnn_tensor *points = common(g, "x", 0);
    const eqnn_lie *G = eqnn_lie_make(g->c, eqnn_cols(points) == 3 ? "T(3)" : "T(2)");
    eqnn_tensor *x = eqnn_take(common(g, "vals", 0), p.node), *u = NULL, *y = NULL;
    eqnn_lie_lift(G, eqnn_take(points, p.node), "lift", 1, &u, NULL);
    eqnn_tensor *pairs = eqnn_lie_pairs(G, u, NULL, p.graph);
    o.attention.heads = meta_int(g, "heads", 4);
    o.attention.kernel_dim = meta_int(g, "kernel_dim", 8);
    o.attention.published = 1;
    o.cols = side_of(g, "w.net.0.module.weight", 0);
    o.layers = numbered_weights(g, "net.", 1, ".ema.input_linear.weight");
    o.out = side_of(g, "out", -1);
    for (int k = 0; k < 2; k++) {
        y = eqnn_lie_transformer(x, pairs, p.graph, "m", &o);
        if (k == 0) attention_weights(g);
    }
    compare(g, "out", y);
    if (has(g, "grad.net.0.module.weight"))
        attention_gradients(g, eqnn_sum(eqnn_mul(y, common(g, "loss_coef", 0))));
    end(g);
}

typedef struct attention_model {
    eqnn_lie_transformer_opts o;
    eqnn_particles particles;
    eqnn_tensor *H;
} attention_model;

static eqnn_tensor *attention_field(eqnn_tensor *z, double t, void *user)
{
    attention_model *m = (attention_model *)user;
    const eqnn_lie *G = eqnn_lie_make(eqnn_context(z), "T(2)");
    (void)t;
    m->H = eqnn_lie_transformer_energy(z, &m->particles, G, 1, "m", &m->o);
    return eqnn_hamiltonian_field(m->H, z);
}

/* Field, energy, roll-out and, through the third derivatives, the gradients of its error */
static void attention_dynamics(golden *g)
{
    size_t n;
    eqnn_ode_opts rule = { .method = EQNN_RK38 };
    attention_model m;
    begin(g, "dyn_T2");
    if (!has(g, "z")) { eqnn_free(g->c); return; }
    memset(&m, 0, sizeof m);
    m.o.attention.attention = "dot_product";
    m.o.attention.heads = meta_int(g, "heads", 4);
    m.o.attention.kernel_dim = meta_int(g, "kernel_dim", 8);
    m.o.cols = side_of(g, "w.net.0.module.weight", 0);
    m.o.layers = numbered_weights(g, "net.", 1, ".ema.input_linear.weight");
    int sets = side_of(g, "sysP", 0), particles = side_of(g, "sysP", 1);
    int steps = side_of(g, "ts", 0);
    m.particles.graph = lie_sets(g, sets, particles);
    m.particles.constants = matrix(g, "sysP", 2);
    eqnn_tensor *z = lie_state(matrix(g, "z", 4 * particles), particles, 0), *y[64] = { NULL };
    eqnn_tensor *target = matrix(g, "target", 4 * particles * steps);
    double *times = numbers(g, "ts", &n);
    attention_field(z, 0, &m);
    attention_weights(g);
    compare(g, "dz", lie_state(attention_field(z, 0, &m), particles, 1));
    compare(g, "H", m.H);
    if (steps > 64) eqnn_fail(g->c, "golden: more than 64 times");
    else if (times) eqnn_ode(attention_field, z, times, steps, y, &m, &rule);
    free(times);
    for (int k = 0; k < steps && k < 64; k++) y[k] = lie_state(y[k], particles, 1);
    eqnn_tensor *path = eqnn_concat_n(y, steps);
    compare(g, "rollout", path);
    eqnn_tensor *loss = eqnn_mse(path, target);
    compare_value(g, "loss", eqnn_value(loss));
    attention_gradients(g, loss);
    end_within(g, "dyn_T2", 1e-9, 1e-4);
}

static void lie_transformers(golden *g)
{
    static const eqnn_lie_transformer_opts plain = { .cols = 0 };
    static const char *const norms[] = { "none", "layer_post", "batch_pre", "batch_post" };
    eqnn_lie_transformer_opts o = plain;
    lie_transformer_case(g, "model_1", o);
    o.max_pool = 1;
    lie_transformer_case(g, "maxpool", o);
    o = plain;
    o.squash = 1;
    lie_transformer_case(g, "tanh_alg", o);
    o = plain;
    o.head_norm = "layer";
    lie_transformer_case(g, "output_layer", o);
    o = plain;
    o.attention.kernel_norm = 1;
    lie_transformer_case(g, "kernel_bn", o);
    o = plain;
    for (int k = 0; k < 4; k++) {
        o.norm = norms[k];
        lie_transformer_case(g, norms[k], o);
    }
    o = plain;
    o.attention.attention = "dot_product";
    o.head = "lieconv";
    lie_transformer_case(g, "lieconv_arch", o);
    attention_dynamics(g);
}

static void set_transformer_case(golden *g, const char *title)
{
    eqnn_set_opts o;
    eqnn_tensor *y = NULL;
    char name[64];
    begin(g, title);
    packed p = pack(g, "presence");
    memset(&o, 0, sizeof o);
    o.heads = meta_int(g, "heads", 4);
    o.inducing = side_of(g, "w.enc_layers.0.module.I", 1);
    o.norm = has(g, "w.pooling_layer.module.mab.ln0.weight");
    o.encoders = numbered_weights(g, "enc_layers.", 0, o.inducing ? ".module.I"
                                                                  : ".module.mab.fc_q.weight");
    o.decoders = numbered_weights(g, "dec_layers.", 0, ".module.mab.fc_q.weight");
    o.seeds = side_of(g, "w.pooling_layer.module.S", 1);
    o.cols = side_of(g, "w.pooling_layer.module.S", 2);
    snprintf(name, sizeof name, "w.dec_layers.%d.module.weight", o.decoders);
    o.out = side_of(g, name, 0);
    if (!o.decoders) o.decoders = -1;
    eqnn_tensor *x = eqnn_take(common(g, "x", 0), p.node);
    for (int k = 0; k < 2; k++) {
        y = eqnn_set_transformer(x, p.graph, "m", &o);
        if (k == 0) attention_weights(g);
    }
    compare(g, "out", y);
    end(g);
}

/* Of every real point: sums of powers 1..5 of its distances over the number of points; or its place
   from the mean of all 7, absent ones included, in the frame of each of 3 turns. */
static eqnn_tensor *finite_content(golden *g, const packed *p, int moments, int turns)
{
    eqnn_tensor *x = common(g, "x", 0);
    const int *node = eqnn_ints_data(p->node);
    int n = eqnn_ints_count(p->node), cols = moments ? 5 : 2, N = p->points;
    double *v = (double *)calloc((size_t)(n * turns * cols) + 1, sizeof *v);
    for (int i = 0; x && v && i < n; i++) {
        int first = node[i] / N * N, present = 0;
        double a = eqnn_at(x, node[i], 0), b = eqnn_at(x, node[i], 1), mean[2] = { 0, 0 };
        for (int j = 0; j < N; j++)
            for (int k = 0; k < 2; k++) mean[k] += eqnn_at(x, first + j, k) / N;
        for (int j = 0; j < n; j++) present += node[j] / N * N == first;
        for (int j = 0; j < n; j++) {
            double d = hypot(eqnn_at(x, node[j], 0) - a, eqnn_at(x, node[j], 1) - b);
            for (int k = 0; moments && k < 5 * turns; k++)
                if (node[j] / N * N == first) v[i * 5 * turns + k] += pow(d, k % 5 + 1) / present;
        }
        for (int k = 0; !moments && k < turns; k++) {
            double t = 2 * acos(-1) * k / turns;
            v[(i * turns + k) * 2] = cos(t) * (a - mean[0]) + sin(t) * (b - mean[1]);
            v[(i * turns + k) * 2 + 1] = cos(t) * (b - mean[1]) - sin(t) * (a - mean[0]);
        }
    }
    x = v ? eqnn_from_double(g->c, turns * n, cols, v) : NULL;
    free(v);
    return x;
}

static void finite_case(golden *g, const char *title)
{
    int turns = meta_int(g, "cn", 3);
    char group[64];
    eqnn_finite_opts o;
    eqnn_tensor *u = NULL, *x = NULL, *y = NULL;
    begin(g, title);
    packed p = pack(g, "presence");
    int n = turns * eqnn_ints_count(p.node);
    int *example = (int *)malloc(((size_t)n + 1) * sizeof *example);
    double *draws = (double *)malloc(((size_t)n + 1) * sizeof *draws);
    memset(&o, 0, sizeof o);
    o.heads = numbered_weights(g, "enc_layers.0.mab.k_g.", 0, ".0.weight");
    o.cols = side_of(g, "w.enc_layers.0.mab.fc_o.weight", 0);
    o.layers = numbered_weights(g, "enc_layers.", 0, ".mab.fc_o.weight");
    o.out = side_of(g, "w.dec_layers.0.2.weight", 0);
    o.dot_product = strstr(title, "dot") != NULL;
    o.slots = turns * p.points;
    for (int i = 0; i < n; i++) {
        example[i] = eqnn_ints_data(p.node)[i / turns] / p.points;
        draws[i] = i % turns / (double)turns;
    }
    eqnn_graph_opts all = { .example = example, .examples = p.sets, .loops = 1 };
    const eqnn_graph *graph = eqnn_complete_graph(g->c, n, &all);
    snprintf(group, sizeof group, "SE(2)_canonical(%d)", turns);
    const eqnn_lie *G = eqnn_lie_make(g->c, group);
    eqnn_tensor *given = eqnn_from_double(g->c, n, 1, draws);
    free(example); free(draws);
    eqnn_lie_lift_given(G, eqnn_take(common(g, "x", 0), p.node), given, turns, &u, NULL);
    eqnn_tensor *pairs = eqnn_lie_pairs(G, u, NULL, graph);
    if (!strstr(title, "constant"))
        x = finite_content(g, &p, !strstr(title, "centroidal"), turns);
    for (int k = 0; k < 2; k++) {
        y = eqnn_finite_transformer(x, pairs, graph, "m", &o);
        if (k == 0) attention_weights(g);
    }
    compare(g, "out", y);
    end_within(g, title, 1e-9, 1e-4);
}

static void set_transformers(golden *g)
{
    char title[128];
    for (int k = 0; title_at(g, k, title); k++) {
        if (!strncmp(title, "se2f_", 5)) finite_case(g, title);
        else set_transformer_case(g, title);
    }
}

/* ---- the official Equiformer ----------------------------------------------------------------- */

static void equiformer_v1_bases(golden *g)
{
    const eqnn_radial_opts plain = { .basis = EQNN_EXP_NORMAL, .unscaled = 1 };
    begin(g, "");
    json *j = meta(g, "config");
    double cutoff = json_number(json_get(j, "cutoff"), 5);
    eqnn_tensor *d = column(g, "in.dist"), *x;
    for (int k = 0; k < 2; k++) {
        eqnn_tensor *y = eqnn_trained_basis(d, "m", json_int(json_get(j, "gaussian_basis"), 6),
                                            cutoff, EQNN_GAUSSIAN);
        if (k) compare(g, "out.gaussian", y);
        else set_weights(g, "w.gaussian.", "m");
    }
    compare(g, "out.expnormal",
            eqnn_radial_basis(d, json_int(json_get(j, "expnormal_basis"), 7), cutoff, &plain));
    mark(g, "expnormal.");
    end_within(g, "bases", 1e-9, 1e-4);
    begin(g, "");
    const char *blocks = json_text(json_get(j, "ln_irreps"), "4x0e+3x1e+2x2e");
    x = eqnn_from_e3nn(matrix(g, "in.ln", 0), eqnn_irreps_make(g->c, blocks));
    for (int k = 0; k < 2; k++) {
        eqnn_tensor *y = eqnn_irreps_layer_norm(x, "m", NULL);
        if (k) compare(g, "out.ln", eqnn_to_e3nn(y));
        else set_weights(g, "w.ln.", "m");
    }
    json_free(j);
    end_within(g, "norm", 1e-9, 1e-4);
}

static void equiformer_v1_options(golden *g, eqnn_equiformer_v1_opts *o, const json *j)
{
    const json *widths = json_get(j, "fc_neurons");
    const eqnn_irreps *sh = eqnn_irreps_make(g->c, json_text(json_get(j, "irreps_sh"), "1x0e"));
    memset(o, 0, sizeof *o);
    if (json_count(widths) != 2)
        eqnn_fail(g->c, "golden: radial networks have two hidden layers here");
    o->lmax = sh && eqnn_irreps_lmax(sh) > 0 ? eqnn_irreps_lmax(sh) : -1;
    o->rescale_degree = json_true(json_get(j, "rescale_degree"), 0);
    o->node = json_text(json_get(j, "irreps_node_embedding"), NULL);
    o->head = json_text(json_get(j, "irreps_head"), NULL);
    o->mid = json_text(json_get(j, "irreps_mlp_mid"), NULL);
    o->feature = json_text(json_get(j, "irreps_feature"), NULL);
    o->layers = json_int(json_get(j, "num_layers"), 0);
    o->heads = json_int(json_get(j, "num_heads"), 0);
    o->functions = json_int(json_get(j, "number_of_basis"), 0);
    o->neurons = json_int(json_at(widths, 0), 0);
    o->neurons2 = json_int(json_at(widths, 1), 0);
    o->radius = json_number(json_get(j, "max_radius"), 0);
    if (!strcmp(json_text(json_get(j, "basis_type"), ""), "exp")) o->basis = EQNN_EXP_NORMAL;
    if (!json_true(json_get(j, "nonlinear_message"), 1)) o->messages = EQNN_MESSAGES_LINEAR;
}

/* Every weight of theirs is one of ours. */
static void equiformer_v1_weights(golden *g)
{
    int theirs = 0;
    set_weights(g, "w.", "m");
    for (int i = 0; i < eqnn_file_count(g->f); i++)
        theirs += !strncmp(eqnn_file_entry(g->f, i)->name, "w.", 2);
    if (theirs != eqnn_parameter_count(g->c))
        eqnn_fail(g->c, "golden: %d weights, theirs %d", eqnn_parameter_count(g->c), theirs);
}

static void equiformer_v1_model(golden *g)
{
    eqnn_equiformer_v1_opts o;
    eqnn_graph_opts graph;
    int nodes, edges, more;
    begin(g, "");
    json *j = meta(g, "config");
    equiformer_v1_options(g, &o, j);
    int *z = integers(g, "in.atomic_numbers", &nodes), *example = integers(g, "in.batch", &more);
    int *from = integers(g, "in.edge_src", &edges), *to = integers(g, "in.edge_dst", &more);
    memset(&graph, 0, sizeof graph);
    graph.sources = graph.targets = nodes;
    graph.example = example;
    int types = json_int(json_get(j, "max_atom_type"), 0);
    eqnn_ints *species = eqnn_ints_make(g->c, nodes, z, types, 0);
    eqnn_tensor *pos = matrix(g, "in.pos", 0), *y = NULL;
    const eqnn_graph *edge = eqnn_graph_make(g->c, edges, from, to, &graph);
    for (int k = 0; k < 2; k++) {
        y = eqnn_equiformer_v1(species, pos, edge, "m", &o);
        if (k == 0) equiformer_v1_weights(g);
    }
    compare(g, "out.energy", y);
    compare(g, "out.forces", eqnn_neg(eqnn_grad(eqnn_sum(y), pos)));
    mark(g, "tap.");
    mark(g, "edge_sh");
    json_free(j);
    free(z), free(example), free(from), free(to);
    end_within(g, "model", 1e-9, 1e-4);
}

static void equiformer_v1(golden *g)
{
    if (strstr(g->file, "bases")) equiformer_v1_bases(g);
    else equiformer_v1_model(g);
}

/* ---- Equiformer ----------------------------------------------------------------------------- */

/* Where our rows stand among theirs: nodes of [batch, n], edges in [batch, n, slots]. */
enum { FORMER_NODES = 1024, FORMER_EDGES = 65536 }; /* of a file, at most */

typedef struct former {
    int batch, n, slots, nodes, edges;
    int node[FORMER_NODES], example[FORMER_NODES], *edge; /* our row -> theirs   */
    eqnn_tensor *x, *pos;
    eqnn_ints *tokens;
    const eqnn_graph *graph;
    eqnn_equiformer_opts o;
    char dim[64], heads[64], dim_head[64];
} former;

/* A number or a list of the settings as "4,4,2". */
static char *former_list(const json *config, const char *key, const char *missing, char out[64])
{
    const json *j = json_get(config, key);
    int at = 0;
    snprintf(out, 64, "%s", missing);
    if (j && j->type != '[') snprintf(out, 64, "%d", json_int(j, 0));
    for (int i = 0; j && j->type == '[' && i < json_count(j); i++)
        at += snprintf(out + at, 64 - (size_t)at, "%s%d", i ? "," : "", json_int(json_at(j, i), 0));
    return out;
}

static void former_settings(const json *c, former *f)
{
    eqnn_equiformer_opts *o = &f->o;
    memset(o, 0, sizeof *o);
    o->dim = former_list(c, "dim", "1", f->dim);
    o->heads = former_list(c, "heads", "8", f->heads);
    o->dim_head = former_list(c, "dim_head", "24", f->dim_head);
    o->degrees = json_int(json_get(c, "num_degrees"), 0);
    o->depth = json_int(json_get(c, "depth"), 0);
    o->radial = json_int(json_get(c, "radial_hidden_dim"), 0);
    o->tokens = json_int(json_get(c, "num_tokens"), 0);
    const json *dim_in = json_get(c, "dim_in");
    o->dim_in = json_int(dim_in && dim_in->type == '[' ? json_at(dim_in, 0) : dim_in, 0);
    o->positions = json_int(json_get(c, "num_positions"), 0);
    o->edge_tokens = json_int(json_get(c, "num_edge_tokens"), 0);
    o->edge_dim = json_int(json_get(c, "edge_dim"), 0);
    o->mlp = !json_true(json_get(c, "l2_dist_attention"), 1);
    o->no_self = !json_true(json_get(c, "attend_self"), 1);
    o->no_gate = !json_true(json_get(c, "gate_attn_head_outputs"), 1);
    o->single_kv = json_true(json_get(c, "single_headed_kv"), 0);
    o->linear_heads = json_int(json_get(c, "num_linear_attn_heads"), 0);
    o->linear_dim = json_int(json_get(c, "linear_attn_dim_head"), 0);
    o->type_norms = json_true(json_get(c, "ff_include_htype_norms"), 0) ||
                    json_true(json_get(c, "include_htype_norms"), 0);
    o->reversible = json_true(json_get(c, "reversible"), 0);
    o->reduce = json_true(json_get(c, "reduce_dim_out"), 0);
    o->nonlinear_out = !json_true(json_get(c, "linear_out"), 1);
    o->pool = json_true(json_get(c, "return_pooled"), 0);
    o->slope = json_number(json_get(c, "attn_leakyrelu_slope"), 0);
    o->hidden_mult = json_int(json_get(c, "attn_hidden_dim_mult"), 0);
    o->embedding_grad = json_number(json_get(c, "embedding_grad_frac"), 0);
    o->feed_mult = json_int(json_get(c, "mult"), 0);
    o->no_project = !json_true(json_get(c, "project_xi_xj"), 1);
    o->no_out = !json_true(json_get(c, "project_out"), 1);
    if (!json_true(json_get(c, "self_interaction"), 1)) o->no_self = 1;
    o->original = o->basis = 1;
}

/* Rows of an entry of shape [.., channels, 2l+1] as a tensor of that degree. */
static eqnn_tensor *former_degree(golden *g, const char *name, int l, int rows, const int *row)
{
    size_t n;
    double *v = numbers(g, name, &n);
    char full[256];
    eqnn_file *file;
    const eqnn_entry *e = find_entry(g, full_name(g, name, full), &file);
    int d = 2 * l + 1, C = e && e->dims > 1 ? (int)e->shape[e->dims - 2] : 1;
    if (e && (int)e->shape[e->dims - 1] != d) C = (int)e->shape[e->dims - 1]; /* [b,n,c] */
    int cols = C * d, block[1][3] = { { C, l, l % 2 ? -1 : 1 } };
    double *p = (double *)malloc(((size_t)rows * (size_t)cols + 1) * sizeof *p);
    for (int r = 0; v && p && r < rows; r++)
        memcpy(p + (size_t)r * (size_t)cols, v + (size_t)row[r] * (size_t)cols,
               (size_t)cols * sizeof *p);
    eqnn_tensor *x = v && p ? eqnn_from_double(g->c, rows, cols, p) : NULL;
    free(v);
    free(p);
    return x ? eqnn_from_e3nn(x, eqnn_irreps_blocks(g->c, (const int (*)[3])block, 1)) : NULL;
}

/* Their rows against ours, of the degree that stands in this block of ours. */
static void former_compare(golden *g, const char *name, eqnn_tensor *x, int l, const int *row)
{
    size_t n;
    double *v = numbers(g, name, &n);
    eqnn_tensor *ours = eqnn_to_e3nn(eqnn_extract_irrep(x, l, l % 2 ? -1 : 1));
    size_t cols = (size_t)eqnn_cols(ours), m = (size_t)eqnn_rows(ours) * cols;
    double *a = (double *)malloc((m + 1) * sizeof *a), *b = (double *)malloc((m + 1) * sizeof *b);
    for (size_t i = 0; v && a && b && i < m; i++) {
        size_t from = (size_t)row[i / cols] * cols + i % cols;
        a[i] = (double)eqnn_data(ours)[i];
        b[i] = from < n ? v[from] : NAN;
    }
    if (v && ours) compare_numbers(g, name, a, b, m);
    free(v);
    free(a);
    free(b);
}

/* Degrees 0.. of entries "<prefix>d" side by side; several rows of ours may be one of theirs. */
static eqnn_tensor *former_features(golden *g, const char *prefix, int rows, const int *row)
{
    eqnn_tensor *x = NULL;
    for (int l = 0; l < 8; l++) {
        char name[64];
        snprintf(name, sizeof name, "%s%d", prefix, l);
        if (!has(g, name)) break;
        eqnn_tensor *y = former_degree(g, name, l, rows, row);
        x = x ? eqnn_concat(x, y) : y;
    }
    return x;
}

static void former_degrees(golden *g, const char *prefix, eqnn_tensor *x, const int *row)
{
    for (int l = 0; l < 8; l++) {
        char name[64];
        snprintf(name, sizeof name, "%s%d", prefix, l);
        if (has(g, name)) former_compare(g, name, x, l, row);
    }
}

/* Weights, all of the file; and gradients, those that are there. */
static void former_gradients(golden *g)
{
    for (int i = 0; i < eqnn_parameter_count(g->c); i++) {
        char entry[256];
        snprintf(entry, sizeof entry, "grad.%s", eqnn_parameter_name(g->c, i) + 2);
        if (has(g, entry)) compare(g, entry, eqnn_gradient(eqnn_parameter_at(g->c, i)));
    }
}

/* The basis of each pair of degrees, which buffers hold. */
static void former_bases(golden *g)
{
    for (int li = 1; li < 8; li++)
        for (int lo = 1; lo < 8; lo++) {
            char name[64];
            snprintf(name, sizeof name, "m.basis:(%d,%d)", li, lo);
            eqnn_tensor *b = eqnn_parameter(g->c, name);
            snprintf(name, sizeof name, "basis.(%d,%d)", li, lo);
            if (b && has(g, name)) compare(g, name, b);
        }
    mark(g, "basis.");
}

/* Of a layer: edges are given as neighbours of each node, some of them masked. */
static void former_layer_graph(golden *g, former *f, int all)
{
    char full[256];
    eqnn_file *file;
    int count, masks, *j = integers(g, "in.neighbor_indices", &count);
    int *mask = integers(g, "in.neighbor_mask", &masks), m = 0;
    const eqnn_entry *e = find_entry(g, full_name(g, "in.neighbor_indices", full), &file);
    int *target = (int *)malloc(((size_t)count + 1) * sizeof(int));
    int *source = (int *)malloc(((size_t)count + 1) * sizeof(int));
    int *at = (int *)malloc(((size_t)count + 1) * sizeof(int));
    double *w = (double *)malloc(((size_t)count + 1) * sizeof(double));
    f->batch = (int)e->shape[0], f->n = (int)e->shape[1], f->slots = (int)e->shape[2];
    f->nodes = f->batch * f->n;
    if (f->nodes > FORMER_NODES) {
        eqnn_fail(g->c, "golden: %d nodes, at most %d are taken", f->nodes, FORMER_NODES);
        f->nodes = 0;
    }
    for (int i = 0; i < f->nodes; i++) f->node[i] = i, f->example[i] = i / f->n;
    for (int i = 0; j && mask && i < count; i++) {
        if (!mask[i] && !all) continue;
        source[m] = j[i] + i / (f->n * f->slots) * f->n;
        target[m] = i / f->slots;
        at[m++] = i;
    }
    eqnn_graph_opts o = { .sources = f->nodes, .targets = f->nodes, .example = f->example };
    f->graph = eqnn_graph_make(g->c, m, source, target, &o);
    f->edge = (int *)calloc((size_t)m + 1, sizeof(int)); /* stays 0 where something failed */
    for (int e2 = 0; f->graph && e2 < m; e2++) {
        f->edge[e2] = at[f->graph->order[e2]];
        w[e2] = mask[f->edge[e2]];
    }
    f->edges = m;
    if (all) f->o.edge_weight = eqnn_from_double(g->c, m, 1, w);
    if (has(g, "in.edges")) {
        eqnn_ints *rows = eqnn_ints_make(g->c, m, f->edge, f->nodes * f->slots, 0);
        f->o.edges = eqnn_take(matrix(g, "in.edges", 0), rows);
    }
    free(j), free(mask), free(target), free(source), free(at), free(w);
    f->pos = matrix(g, "in.coors", 3);
    f->x = former_features(g, "in.feats.", f->nodes, f->node);
    mark(g, "D.");
    mark(g, "radial.");
    mark(g, "in.rel_");
}

static void former_product(golden *g)
{
    former f;
    char out[64];
    begin(g, "");
    memset(&f, 0, sizeof f);
    json *config = meta(g, "config");
    former_settings(config, &f);
    former_layer_graph(g, &f, 0);
    former_list(config, "fiber_out", "1", out);
    for (int k = 0; k < 2; k++) {
        eqnn_tensor *self = NULL;
        eqnn_tensor *mean = eqnn_equiformer_product(f.x, f.pos, f.graph, "m", out, &f.o, NULL);
        eqnn_tensor *each = eqnn_equiformer_product(f.x, f.pos, f.graph, "m", out, &f.o, &self);
        if (!k) { set_weights(g, "w.", "m"); continue; }
        former_degrees(g, "out_pool.", mean, f.node);
        int *row = (int *)malloc(((size_t)(f.edges + f.nodes) + 1) * sizeof(int));
        for (int e = 0; e < f.edges; e++) row[e] = f.edge[e] / f.slots + f.edge[e] + 1;
        former_degrees(g, "out_edge.", each, row);
        for (int i = 0; i < f.nodes; i++) row[i] = i * (f.slots + 1);
        former_degrees(g, "out_edge.", self, row);
        free(row);
    }
    former_bases(g);
    json_free(config);
    free(f.edge);
    end_within(g, "-", 1e-9, 1e-4);
}

static void former_attention(golden *g)
{
    former f;
    begin(g, "");
    memset(&f, 0, sizeof f);
    json *config = meta(g, "config");
    former_settings(config, &f);
    f.o.mlp = !strncmp(g->file, "mlp", 3);
    former_layer_graph(g, &f, strstr(g->file, "as_original") != NULL);
    for (int k = 0; k < 2; k++) {
        eqnn_tensor *y = eqnn_equiformer_attention(f.x, f.pos, f.graph, "m", &f.o);
        if (!k) { set_weights(g, "w.", "m"); continue; }
        former_degrees(g, "out.", y, f.node);
        eqnn_tensor *cot = former_features(g, "cot.", f.nodes, f.node);
        eqnn_tensor *loss = eqnn_sum(eqnn_mul(eqnn_as(y, NULL), eqnn_as(cot, NULL)));
        former_degrees(g, "grad.in.feats.", eqnn_grad(loss, f.x), f.node);
        eqnn_backward(loss);
        former_gradients(g);
    }
    mark(g, "basis.");
    json_free(config);
    free(f.edge);
    end_within(g, "-", 1e-9, 1e-4);
}

static void former_feedforward(golden *g)
{
    former f;
    begin(g, "");
    memset(&f, 0, sizeof f);
    json *config = meta(g, "config");
    former_settings(config, &f);
    size_t count;
    double *v = numbers(g, "in.feats.0", &count);
    f.nodes = (int)count / json_int(json_at(json_get(config, "fiber"), 0), 1);
    if (f.nodes > FORMER_NODES) f.nodes = FORMER_NODES;
    for (int i = 0; i < f.nodes; i++) f.node[i] = i;
    f.x = former_features(g, "in.feats.", f.nodes, f.node);
    free(v);
    for (int k = 0; k < 2; k++) {
        eqnn_tensor *y = eqnn_equiformer_feedforward(f.x, "m", NULL, &f.o);
        if (!k) { set_weights(g, "w.", "m"); continue; }
        former_degrees(g, "out.", y, f.node);
    }
    mark(g, "prenorm_out.");
    json_free(config);
    end_within(g, "-", 1e-9, 1e-4);
}

/* Their sums hold padded nodes, too, which hear nobody. */
static void former_alone(golden *g, former *f)
{
    int n = f->batch * f->n, edges = f->graph->edges;
    int *source = (int *)malloc(((size_t)edges + 1) * sizeof(int));
    int *target = (int *)malloc(((size_t)edges + 1) * sizeof(int));
    for (int e = 0; e < edges; e++) {
        source[e] = f->node[f->graph->source[e]];
        target[e] = f->node[f->graph->target[e]];
    }
    for (int i = 0; i < n && i < FORMER_NODES; i++) f->node[i] = i, f->example[i] = i / f->n;
    f->nodes = n;
    eqnn_graph_opts o = { .sources = n, .targets = n, .example = f->example };
    f->graph = eqnn_graph_make(g->c, edges, source, target, &o);
    f->pos = matrix(g, "in.coors", 3);
    free(source), free(target);
}

/* Of a model: nodes are packed, neighbours found as the settings say. */
static void former_model_graph(golden *g, const json *config, former *f, eqnn_ints **bonded,
                               int alone)
{
    char full[256];
    eqnn_file *file;
    int count, *mask = integers(g, "in.mask", &count);
    const eqnn_entry *e = find_entry(g, full_name(g, "in.mask", full), &file);
    f->batch = (int)e->shape[0], f->n = (int)e->shape[1];
    if (count > FORMER_NODES)
        eqnn_fail(g->c, "golden: %d nodes, at most %d are taken", count, FORMER_NODES);
    for (int i = 0; mask && i < count && f->nodes < FORMER_NODES; i++)
        if (mask[i]) f->example[f->nodes] = i / f->n, f->node[f->nodes++] = i;
    free(mask);
    eqnn_ints *nodes = eqnn_ints_make(g->c, f->nodes, f->node, count, 0);
    f->pos = eqnn_detach(eqnn_take(matrix(g, "in.coors", 3), nodes));
    const json *k = json_get(config, "num_neighbors");
    eqnn_neighbour_opts o = { .example = f->example, .examples = f->batch, .bonded = bonded };
    o.neighbours = k ? json_int(k, 0) > 0 ? json_int(k, 0) : -1 : 0;
    if (json_int(json_get(config, "num_neighbors"), 1) > 0)
        o.radius = json_number(json_get(config, "valid_radius"), 0);
    o.bond_degrees = json_int(json_get(config, "num_adj_degrees_embed"), 0);
    /* theirs are squares of squares: 1, 2, 4, 8 bonds in a row */
    if (o.bond_degrees > 1) o.bond_degrees = 1 << (o.bond_degrees < 16 ? o.bond_degrees - 1 : 15);
    o.max_bonds = json_int(json_get(config, "max_sparse_neighbors"), 0);
    if (has(g, "in.adj_mat")) {
        int n, m = 0, *adj = integers(g, "in.adj_mat", &n);
        int *source = (int *)malloc(((size_t)n + 1) * sizeof(int));
        int *target = (int *)malloc(((size_t)n + 1) * sizeof(int));
        for (int i = 0; adj && i < n; i++)
            if (adj[i]) source[m] = i % f->n, target[m++] = i / f->n;
        eqnn_graph_opts bonds = { .sources = f->nodes, .targets = f->nodes };
        o.bonds = eqnn_graph_make(g->c, m, source, target, &bonds);
        free(adj), free(source), free(target);
    }
    double far = f->o.mlp ? 0 : o.radius; /* where degree 0 of distance attention looks the same */
    if (far > 0) o.radius = 0;
    f->graph = eqnn_neighbour_graph(f->pos, &o);
    if (far > 0 && f->graph) {
        double *w = (double *)malloc(((size_t)f->graph->edges + 1) * sizeof *w);
        eqnn_tensor *r = eqnn_norm(eqnn_edge_vectors(f->pos, f->graph));
        const int *bond = bonded && *bonded ? eqnn_ints_data(*bonded) : NULL;
        for (int i = 0; w && i < f->graph->edges; i++)
            w[i] = eqnn_at(r, i, 0) <= far || (bond && bond[i]);
        f->o.edge_weight = eqnn_from_double(g->c, f->graph->edges, 1, w);
        free(w);
    }
    if (alone && f->graph) {
        former_alone(g, f);
        nodes = eqnn_ints_make(g->c, f->nodes, f->node, count, 0);
    }
    if (has(g, "in.edges") && f->graph && !f->o.edge_tokens) { /* numbers [b,n,n,e] */
        int all = f->batch * f->n * f->n, *v = (int *)malloc(((size_t)all + 1) * sizeof(int));
        for (int i = 0; v && i < f->graph->edges; i++)
            v[i] = f->node[f->graph->target[i]] * f->n + f->node[f->graph->source[i]] % f->n;
        f->o.edges = eqnn_take(matrix(g, "in.edges", 0),
                               eqnn_ints_make(g->c, f->graph->edges, v, all, 0));
        free(v);
    } else if (has(g, "in.edges") && f->graph) {
        int n, *kind = integers(g, "in.edges", &n);
        int *v = (int *)malloc(((size_t)f->graph->edges + 1) * sizeof(int));
        for (int i = 0; kind && v && i < f->graph->edges; i++)
            v[i] = kind[f->node[f->graph->target[i]] * f->n + f->node[f->graph->source[i]] % f->n];
        f->o.edge_token = eqnn_ints_make(g->c, f->graph->edges, v, f->o.edge_tokens, 0);
        free(v);
        free(kind);
    }
    if (f->o.tokens) {
        int n, v[FORMER_NODES], *id = integers(g, "in.feats", &n);
        for (int i = 0; id && i < f->nodes; i++) v[i] = id[f->node[i]];
        f->tokens = eqnn_ints_make(g->c, f->nodes, v, f->o.tokens, 0);
        free(id);
    } else if (has(g, "in.feats")) {
        f->x = eqnn_take(matrix(g, "in.feats", 0), nodes);
    } else {
        f->x = former_features(g, "in.feats.", f->nodes, f->node);
    }
}

/* The scalar sum(cot * out) of the rows that are nodes. */
static eqnn_tensor *former_loss(golden *g, eqnn_tensor *y, const int *row)
{
    eqnn_tensor *sum = NULL;
    for (int l = 0; l < 2; l++) {
        char name[32];
        snprintf(name, sizeof name, "cot.type%d", l);
        if (l && !has(g, name)) continue; /* a model of degree 0 only */
        eqnn_tensor *ours = eqnn_to_e3nn(eqnn_extract_irrep(y, l, l ? -1 : 1));
        eqnn_ints *rows = eqnn_ints_make(g->c, eqnn_rows(ours), row, 0, 0);
        int cols = eqnn_cols(ours);
        eqnn_tensor *cot = matrix(g, name, cols);
        rows = eqnn_ints_make(g->c, eqnn_rows(ours), row, eqnn_rows(cot), 0);
        eqnn_tensor *s = eqnn_sum(eqnn_mul(ours, eqnn_take(cot, rows)));
        sum = sum ? eqnn_add(sum, s) : s;
    }
    return sum;
}

/* Differences of the scalar with respect to the first four positions, themselves good to 2e-7. */
static void former_differences(golden *g, eqnn_tensor *dpos)
{
    size_t n;
    double ours[12], *theirs = has(g, "grad_fd.coors_first4")
                                   ? numbers(g, "grad_fd.coors_first4", &n) : NULL;
    if (!theirs || n != 12 || !dpos) { free(theirs); return; }
    for (int i = 0; i < 12; i++) {
        ours[i] = eqnn_at(dpos, i / 3, i % 3);
        if (sizeof(eqnn_real) == 8 && fabs(ours[i] - theirs[i]) <= 2e-7 * fmax(1, fabs(theirs[i])))
            ours[i] = theirs[i];
    }
    compare_numbers(g, "grad_fd.coors_first4", ours, theirs, 12);
    free(theirs);
}

/* The original's own basis is rounded to float and has the signs of one machine's LAPACK. */
static void former_stock(golden *g, former *f, const int *row)
{
    for (int i = 0; i < eqnn_file_count(g->f); i++) {
        const char *name = eqnn_file_entry(g->f, i)->name, *pair = strstr(name, "stock.basis.");
        char full[64];
        size_t n;
        if (!pair) continue;
        snprintf(full, sizeof full, "m.basis:%s", pair + 12);
        eqnn_tensor *basis = eqnn_parameter(g->c, full);
        double *v = numbers(g, name, &n);
        if (v) eqnn_set(basis, v);
        free(v);
    }
    eqnn_tensor *y = eqnn_equiformer(f->x, f->tokens, f->pos, f->graph, "m", &f->o);
    for (int l = 0; l < 2; l++) {
        char name[32];
        snprintf(name, sizeof name, "stock.out.type%d", l);
        if (has(g, name)) former_compare(g, name, y, l, row);
    }
}

static void former_model(golden *g)
{
    former f;
    eqnn_ints *bonded = NULL;
    begin(g, "");
    memset(&f, 0, sizeof f);
    json *config = meta(g, "config");
    former_settings(config, &f);
    former_model_graph(g, config, &f, &bonded, 0);
    char text[64];
    snprintf(text, sizeof text, "%s", eqnn_file_meta(g->f, "num_parameters"));
    int row[FORMER_NODES];
    for (int i = 0; i < FORMER_NODES; i++) row[i] = f.o.pool ? i : f.node[i];
    for (int k = 0; k < 2; k++) {
        eqnn_tensor *y = eqnn_equiformer(f.x, f.tokens, f.pos, f.graph, "m", &f.o);
        if (!k) { set_weights(g, "w.", "m"); continue; }
        if ((int)eqnn_parameter_size(g->c) != atoi(text))
            eqnn_fail(g->c, "golden: %d parameters, theirs %s", (int)eqnn_parameter_size(g->c),
                      text);
        former_compare(g, "out.type0", y, 0, row);
        if (has(g, "out.type1") || f.o.degrees != 1) former_compare(g, "out.type1", y, 1, row);
        if (f.nodes < f.batch * f.n) {
            memset(&f, 0, sizeof f);
            former_settings(config, &f);
            former_model_graph(g, config, &f, &bonded, 1);
            for (int i = 0; i < FORMER_NODES; i++) row[i] = f.node[i];
            y = eqnn_equiformer(f.x, f.tokens, f.pos, f.graph, "m", &f.o);
        }
        eqnn_tensor *loss = former_loss(g, y, row);
        if (has(g, "grad_fd.coors_first4")) former_differences(g, eqnn_grad(loss, f.pos));
        eqnn_backward(loss);
        former_gradients(g);
    }
    former_bases(g);
    former_stock(g, &f, row);
    json_free(config);
    end_within(g, "-", 1e-9, 1e-4);
}

/* ---- files ---------------------------------------------------------------------------------- */

typedef struct table_kind {
    const char *begins;
    void (*row)(golden *, const table_row *);
} table_kind;

/* Tables that stand alone. */
static const table_kind tables[] = { { "basis_dims", basis_dims_row },
                                     { "uniform_rep", uniform_rep_row } };

/* ---- edge frames (golden/equiformer) -------------------------------------------------------- */

static int setting(json *j, const char *key, int otherwise)
{
    return json_int(json_get(j, key), otherwise);
}


/* Features [rows, coefficients, channels], which is our own order */
static eqnn_tensor *coefficients(golden *g, const char *name, int channels, int lmax)
{
    const eqnn_irreps *a = eqnn_irreps_uniform(g->c, channels, lmax);
    return eqnn_as(matrix(g, name, a ? a->cols : 1), a);
}

/* A row in the frame with |m| <= mmax, by degree as the file has it instead of by order */
static eqnn_tensor *by_degree(eqnn_tensor *y, int lmax, int mmax, int C)
{
    int column[4096], n = 0, first = 0;
    for (int l = 0; l <= lmax; l++)
        for (int m = -(l < mmax ? l : mmax); m <= (l < mmax ? l : mmax); m++) {
            int a = abs(m);
            first = a ? (lmax + 1) + (a - 1) * (2 * lmax + 2 - a) : 0; /* of +a */
            if (m < 0) first += lmax + 1 - a;
            for (int u = 0; u < C; u++) column[n++] = (first + l - a) * C + u;
        }
    return eqnn_columns(eqnn_as(y, NULL), eqnn_ints_make(eqnn_context(y), n, column, n, 0));
}

static eqnn_frame *golden_frame(golden *g, eqnn_tensor *r, int lmax, int mmax)
{
    size_t n;
    eqnn_frame_opts o;
    memset(&o, 0, sizeof o);
    double *R = numbers(g, "in.edge_rot_mat", &n);
    o.rotations = R;
    eqnn_frame *f = R ? eqnn_frame_make(r, lmax, mmax, &o) : NULL;
    free(R);
    return f;
}

/* "wigner" [edges, (lmax+1)^2, (lmax+1)^2], block by block */
static void so2_wigner(golden *g, int lmax)
{
    size_t n, nR, K = (size_t)(lmax + 1) * (size_t)(lmax + 1);
    double *theirs = numbers(g, "wigner", &n), *R = numbers(g, "in.edge_rot_mat", &nR);
    double *ours = (double *)calloc(n + 1, sizeof *ours), *D = (double *)calloc(K, sizeof *D);
    for (size_t e = 0; theirs && R && ours && D && e < nR / 9; e++)
        for (size_t l = 0; l <= (size_t)lmax; l++) {
            size_t w = 2 * l + 1;
            double *D_l = (double *)calloc(w * w, sizeof *D_l);
            eqnn_wigner_D((int)l, R + 9 * e, D_l);
            for (size_t i = 0; D_l && i < w * w; i++)
                ours[(e * K + l * l + i / w) * K + l * l + i % w] = D_l[i];
            free(D_l);
        }
    if (theirs && ours) compare_numbers(g, "wigner", ours, theirs, n);
    free(theirs);
    free(R);
    free(ours);
    free(D);
}

static void so2_generators(golden *g, int lmax)
{
    static const char *const names[] = { "generator.x", "generator.y", "generator.z" };
    size_t n, K = (size_t)(lmax + 1) * (size_t)(lmax + 1);
    double X[3 * 13 * 13];
    for (int k = 0; k < 3 && has(g, names[k]) && lmax <= 6; k++) {
        double *theirs = numbers(g, names[k], &n), *ours = (double *)calloc(n + 1, sizeof *ours);
        for (size_t l = 0; ours && l <= (size_t)lmax; l++) {
            size_t w = 2 * l + 1;
            eqnn_generators((int)l, X);
            for (size_t i = 0; i < w * w; i++)
                ours[(l * l + i / w) * K + l * l + i % w] = X[(size_t)k * w * w + i];
        }
        if (theirs && ours) compare_numbers(g, names[k], ours, theirs, n);
        free(theirs);
        free(ours);
    }
}

/* Irreps 0..lmax that are all even: products of every three degrees that fit. */
static const eqnn_irreps *all_even(golden *g, int copies, int lmax)
{
    int block[64][3];
    for (int l = 0; l <= lmax; l++) block[l][0] = copies, block[l][1] = l, block[l][2] = 1;
    return eqnn_irreps_blocks(g->c, (const int (*)[3])block, lmax + 1);
}

/* The equivalent dense product: its weights, its values, and back to the layer's weights. */
static void so2_dense(golden *g, eqnn_tensor *x, eqnn_tensor *r, int lmax, int c_in, int c_out)
{
    eqnn_product_opts o;
    eqnn_harmonics_opts h;
    int at = 0;
    char name[64];
    memset(&o, 0, sizeof o);
    memset(&h, 0, sizeof h);
    h.normalize = 1;
    o.irrep_kind = EQNN_IRREP_PLAIN;
    o.path_kind = EQNN_PLAIN;
    const eqnn_irreps *in = all_even(g, c_in, lmax), *sh = all_even(g, 1, 2 * lmax);
    const eqnn_product *p = eqnn_product_full(g->c, in, sh, all_even(g, c_out, lmax), &o);
    eqnn_tensor *w = eqnn_so2_to_product(g->c, "so2", p);
    double ours[64];
    for (int li = 0; w && li <= lmax; li++)
        for (int J = 0; J <= 2 * lmax; J++)
            for (int lo = 0; lo <= lmax; lo++) {
                if (J < abs(li - lo) || J > li + lo) continue;
                size_t n;
                snprintf(name, sizeof name, "dense_w.%d,%d,%d", lo, li, J);
                double *theirs = numbers(g, name, &n);
                for (int u = 0; u < c_in; u++)
                    for (int v = 0; v < c_out; v++)
                        ours[v * c_in + u] = eqnn_at(w, 0, at++) * sqrt(2 * J + 1);
                if (theirs) compare_numbers(g, name, ours, theirs, n);
                free(theirs);
            }
    eqnn_tensor *Y = eqnn_as(eqnn_spherical_harmonics(r, 2 * lmax, &h), sh);
    eqnn_tensor *y = eqnn_tensor_product(eqnn_as(x, in), Y, w, p), *old[16];
    for (int i = 0; i < eqnn_parameter_count(g->c); i++)
        old[i] = eqnn_detach(eqnn_parameter_at(g->c, i));
    eqnn_tensor *bias = eqnn_stretch(eqnn_parameter(g->c, "so2.fc_m0.bias"), eqnn_rows(x),
                                     c_out * (lmax + 1));
    eqnn_tensor *b = NULL; /* the bias of degree l turns as Y^l / sqrt(2l+1) does */
    for (int l = 0; l <= lmax; l++) {
        eqnn_tensor *part = NULL;
        for (int m = 0; m <= 2 * l; m++) {
            eqnn_tensor *k = eqnn_scale(eqnn_slice(eqnn_as(Y, NULL), l * l + m, 1),
                                        1 / sqrt(2 * l + 1));
            eqnn_tensor *t = eqnn_mul(eqnn_slice(bias, l * c_out, c_out), k);
            part = part ? eqnn_concat(part, t) : t;
        }
        b = b ? eqnn_concat(b, part) : part;
    }
    if (y) compare(g, "out.y_dense", eqnn_add(eqnn_as(y, NULL), b));
    eqnn_so2_from_product(g->c, "so2", p, w);
    for (int i = 0; i < eqnn_parameter_count(g->c); i++)
        worse(g, "weights, there and back",
              test_difference(eqnn_parameter_at(g->c, i), old[i]));
}

static void so2(golden *g)
{
    json *j;
    begin(g, "");
    j = meta(g, "config");
    int lmax = setting(j, "lmax", 0), mmax = setting(j, "mmax", 0);
    int c_in = setting(j, "c_in", 1), c_out = setting(j, "c_out", 1);
    eqnn_so2_opts o;
    memset(&o, 0, sizeof o);
    o.extra = setting(j, "extra_m0_output_channels", 0);
    eqnn_tensor *x = coefficients(g, "in.x", c_in, lmax), *r = matrix(g, "in.edge_vec", 3);
    eqnn_tensor *y = NULL, *z = NULL;
    const eqnn_irreps *out = eqnn_irreps_uniform(g->c, c_out, lmax);
    eqnn_frame *f = golden_frame(g, r, lmax, mmax);
    so2_wigner(g, lmax);
    so2_generators(g, lmax);
    eqnn_tensor *in = eqnn_to_frame(x, f, EQNN_EDGES);
    if (in) compare(g, "x_rotated", by_degree(in, lmax, mmax, c_in));
    for (int pass = 0; pass < 2 && in; pass++) { /* the first one makes the parameters */
        eqnn_tensor *h = eqnn_enter(in, "so2");
        if (has(g, "in.x_edge")) {
            eqnn_tensor *e = eqnn_enter(matrix(g, "in.x_edge", 0), "rad_func.net");
            int factors = 0;
            for (int m = 0; m <= mmax; m++) factors += (lmax + 1 - m) * c_in;
            for (int k = 0; k < 2; k++) {
                int width = json_int(json_at(json_get(j, "edge_channels"), k + 1), 0);
                e = eqnn_linear(e, k ? "3" : "0", width, NULL);
                e = eqnn_silu(eqnn_layer_norm(e, k ? "4" : "1", NULL));
            }
            o.radial = eqnn_leave(eqnn_linear(e, "6", factors, NULL));
            if (pass) compare(g, "radial_weights", o.radial);
        }
        y = eqnn_leave(eqnn_so2_linear(h, "", out, &o));
        if (!pass) set_weights(g, "w.", "so2");
    }
    if (o.extra) compare(g, "out.extra_m0", eqnn_slice(y, 0, o.extra));
    y = o.extra ? eqnn_slice(y, o.extra, eqnn_cols(y) - o.extra) : y;
    if (y) compare(g, "y_rotated", by_degree(y, lmax, mmax, c_out));
    z = eqnn_from_frame(y, f, out, EQNN_EDGES, mmax < lmax);
    compare(g, "out.y", z);
    if (has(g, "cot.y")) {
        eqnn_tensor *want[2] = { x, r }, *dx[2] = { NULL, NULL };
        eqnn_tensor *cot = eqnn_as(coefficients(g, "cot.y", c_out, lmax), NULL);
        eqnn_grads(eqnn_sum(eqnn_mul(eqnn_as(z, NULL), cot)), want, 2, dx);
        compare(g, "grad.in.x", dx[0]);
        compare(g, "grad.in.edge_vec", dx[1]);
    }
    if (has(g, "out.y_dense")) so2_dense(g, x, r, lmax, c_in, c_out);
    mark(g, "to_m"); /* what by_degree above does, and what out.y shows */
    mark(g, "rotate_inv_rescale");
    json_free(j);
    end(g);
}

/* A row in the frame from numbers that are listed by degree; the reverse of by_degree. */
static eqnn_tensor *by_order(eqnn_tensor *x, int lmax, int mmax, int C)
{
    int column[4096], n = 0;
    for (int m = 0; m <= mmax; m++)
        for (int s = m; s >= -m; s -= m ? 2 * m : 1)
            for (int l = m; l <= lmax; l++) {
                int at = 0;
                for (int k = 0; k < l; k++) at += 2 * (k < mmax ? k : mmax) + 1;
                at += s + (l < mmax ? l : mmax);
                for (int u = 0; u < C; u++) column[n++] = at * C + u;
            }
    return eqnn_columns(x, eqnn_ints_make(eqnn_context(x), n, column, n, 0));
}

/* The label of a row in the frame, as a frame gives it */
static eqnn_tensor *in_frame(golden *g, eqnn_tensor *y, int lmax, int mmax, int C)
{
    eqnn_frame *f = eqnn_frame_make(eqnn_zeros(g->c, 1, 3), lmax, mmax, NULL);
    const eqnn_irreps *a = eqnn_irreps_uniform(g->c, C, lmax);
    eqnn_tensor *zero = eqnn_as(eqnn_zeros(g->c, 1, a ? a->cols : 0), a);
    return eqnn_as(y, eqnn_label_of(eqnn_to_frame(zero, f, EQNN_EDGES)));
}

static void s2_activations(golden *g)
{
    static const char *const out[] = { "out.sep_s2", "out.s2", "out.gate" };
    json *j;
    begin(g, "");
    j = meta(g, "config");
    int lmax = setting(j, "lmax", 0), mmax = setting(j, "mmax", 0), C = setting(j, "channels", 1);
    eqnn_sphere_opts o;
    memset(&o, 0, sizeof o);
    o.beta = setting(j, "lat", 0);
    o.alpha = setting(j, "long", 0);
    json_free(j);
    int K = (lmax + 1) * (lmax + 1) - (lmax - mmax) * (lmax - mmax + 1);
    eqnn_tensor *x = matrix(g, "in.x", K * C), *scalars = matrix(g, "in.scalars", C);
    eqnn_tensor *y = in_frame(g, by_order(x, lmax, mmax, C), lmax, mmax, C);
    eqnn_tensor *gates = matrix(g, "in.gates", lmax * C);
    for (int k = 0; k < 3; k++) {
        o.act = (eqnn_sphere_act)k;
        eqnn_tensor *s = k == 1 ? NULL : k ? gates : scalars;
        eqnn_tensor *z = eqnn_sphere_activation(y, lmax, s, &o);
        if (z) compare(g, out[k], by_degree(z, lmax, mmax, C));
        if (lmax > mmax) continue;
        eqnn_tensor *node = eqnn_as(x, eqnn_irreps_uniform(g->c, C, lmax));
        compare(g, out[k], eqnn_sphere_activation(node, lmax, s, &o)); /* irreps, likewise */
    }
    compare(g, "out.smooth_leaky_relu", eqnn_smooth_leaky_relu(scalars, 0.2));
    mark(g, "to_grid_mat"); /* which out.s2 shows */
    mark(g, "from_grid_mat");
    end(g);
}

static void sphere_norms(golden *g)
{
    static const char *const names[] = { "layer_norm", "layer_norm_sh", "rms_norm_sh" };
    json *j;
    begin(g, "");
    j = meta(g, "config");
    int lmax = setting(j, "lmax", 0), C = setting(j, "channels", 1);
    json_free(j);
    eqnn_tensor *x = coefficients(g, "in.x", C, lmax);
    for (int pass = 0; pass < 2; pass++) {
        for (int k = 0; k < 3; k++) {
            eqnn_norm_opts o;
            char name[64];
            memset(&o, 0, sizeof o);
            o.together = k == 2;
            eqnn_tensor *h = eqnn_enter(x, "norms");
            eqnn_tensor *y = k == 1 ? eqnn_separable_layer_norm(h, names[k], &o)
                                    : eqnn_irreps_layer_norm(h, names[k], &o);
            y = eqnn_leave(y);
            snprintf(name, sizeof name, "out.%s", names[k]);
            if (pass) compare(g, name, y);
        }
        if (!pass) set_weights(g, "w.", "norms");
    }
    end(g);
}

/* Edges as the graph sorts them: rotations [edges,9] of the file in its own order */
static double *sorted_rotations(golden *g, const eqnn_graph *graph)
{
    size_t n;
    double *R = numbers(g, "in.edge_rot_mat", &n), *out = (double *)malloc((n + 1) * sizeof *out);
    for (int e = 0; R && out && graph && e < graph->edges; e++)
        memcpy(out + 9 * e, R + 9 * graph->order[e], 9 * sizeof *out);
    free(R);
    return out;
}

static eqnn_equiformer_v2_opts v2_options(golden *g, json *j)
{
    static const char *const norms[] = { "layer_norm_sh", "layer_norm", "rms_norm_sh", NULL };
    eqnn_equiformer_v2_opts o;
    memset(&o, 0, sizeof o);
    o.lmax = setting(j, "lmax", 0);
    o.mmax = setting(j, "mmax", 0);
    o.blocks = setting(j, "num_layers", 0);
    o.channels = setting(j, "sphere_channels", 0);
    o.hidden = setting(j, "attn_hidden_channels", 0);
    o.heads = setting(j, "num_heads", 0);
    o.alpha = setting(j, "attn_alpha_channels", 0);
    o.value = setting(j, "attn_value_channels", 0);
    o.ffn = setting(j, "ffn_hidden_channels", 0);
    o.norm = (eqnn_v2_norm)find_word(g, norms, json_text(json_get(j, "norm_type"), NULL));
    o.act = json_true(json_get(j, "use_gate_act"), 0)     ? EQNN_DEGREE_GATE
            : json_true(json_get(j, "use_sep_s2_act"), 0) ? EQNN_SEPARABLE_S2
                                                          : EQNN_S2;
    o.no_grid_mlp = !json_true(json_get(j, "use_grid_mlp"), 1);
    o.scalar_mlp = json_true(json_get(j, "use_sep_s2_act"), 0);
    o.no_renorm = !json_true(json_get(j, "use_attn_renorm"), 1);
    o.beta = o.points = setting(j, "grid_resolution", -1);
    if (o.lmax == 0) o.lmax = -1;
    if (o.mmax == 0) o.mmax = -1;
    o.edge_channels = setting(j, "edge_channels", 0);
    o.gaussians = setting(j, "num_gaussians", 0);
    o.width = json_number(json_get(j, "basis_width_scalar"), 0);
    o.radius = json_number(json_get(j, "max_radius"), 0);
    o.nodes = json_number(json_get(j, "avg_num_nodes"), 0);
    o.neighbours = json_number(json_get(j, "avg_degree"), 0);
    return o;
}

static eqnn_escn_opts escn_options(json *j)
{
    eqnn_escn_opts o;
    memset(&o, 0, sizeof o);
    o.lmax = setting(j, "lmax", 0);
    o.mmax = setting(j, "mmax", 0);
    o.layers = setting(j, "num_layers", 0);
    o.channels = setting(j, "sphere_channels", 0);
    o.hidden = setting(j, "hidden_channels", 0);
    o.beta = setting(j, "grid_resolution", -1);
    o.points = o.beta > 0 ? o.beta : 0;
    if (o.lmax == 0) o.lmax = -1;
    if (o.mmax == 0) o.mmax = -1;
    o.edge_channels = setting(j, "edge_channels", 0);
    o.gaussians = setting(j, "num_gaussians", 0);
    o.width = json_number(json_get(j, "basis_width_scalar"), 0);
    o.radius = json_number(json_get(j, "cutoff"), 0);
    o.samples = setting(j, "num_sphere_samples", 0);
    return o;
}

/* EquiformerV2 or eSCN: the same inputs */
static void oc20_network(golden *g, int escn)
{
    json *j;
    begin(g, "");
    j = meta(g, "config");
    eqnn_equiformer_v2_opts o;
    eqnn_escn_opts e;
    memset(&o, 0, sizeof o);
    memset(&e, 0, sizeof e);
    if (escn) e = escn_options(j);
    else o = v2_options(g, j);
    int n, edges, *edge = integers(g, "in.edge_index", &edges);
    int *batch = integers(g, "in.batch", &n);
    int *species = integers(g, "in.atomic_numbers", &n), range = setting(j, "max_num_elements", 0);
    eqnn_graph_opts go;
    memset(&go, 0, sizeof go);
    go.targets = n;
    go.example = batch;
    const eqnn_graph *graph = eqnn_graph_make(g->c, edges / 2, edge, edge + edges / 2, &go);
    double *R = sorted_rotations(g, graph);
    eqnn_tensor *pos = matrix(g, "in.pos", 3), *forces = NULL, *energy = NULL;
    o.rotations = e.rotations = R;
    o.forces = e.forces = &forces;
    for (int pass = 0; pass < 2; pass++) {
        eqnn_ints *kind = eqnn_ints_make(g->c, n, species, range, 0);
        energy = escn ? eqnn_escn(kind, pos, graph, "net", &e)
                      : eqnn_equiformer_v2(kind, pos, graph, "net", &o);
        if (!pass) set_weights(g, "w.", "net");
    }
    compare(g, "out.energy", energy);
    compare(g, "out.forces", forces);
    mark(g, "tap.");
    char count[512];
    double theirs = atof(meta_text(g, "num_parameters", count));
    double ours = (double)eqnn_parameter_size(g->c);
    compare_numbers(g, "num_parameters", &ours, &theirs, 1);
    free(R);
    free(species);
    free(batch);
    free(edge);
    json_free(j);
    end(g);
}

static void equiformer_v2(golden *g) { oc20_network(g, 0); }
static void escn(golden *g) { oc20_network(g, 1); }

typedef struct golden_kind { const char *begins; void (*run)(golden *); } golden_kind;

static const golden_kind kinds[] = { { "wigner_3j", wigner_3j },
                                     { "so2_", so2 },
                                     { "equiformer_v2", equiformer_v2 },
                                     { "escn", escn },
                                     { "s2_lmax", s2_activations },
                                     { "norms_", sphere_norms },
                                     { "wigner_D", wigner_D },
                                     { "spherical_harmonics", spherical_harmonics },
                                     { "fully_connected_tp", tensor_products },
                                     { "tensor_product_modes", tensor_products },
                                     { "tensor_product_family", product_family },
                                     { "linear", linear },
                                     { "nn", nn },
                                     { "radial_bases", radial_bases },
                                     { "network_2101", network },
                                     { "equivariant_polynomial", polynomial },
                                     { "mlp_training_steps", mlp },
                                     { "s2_so3_grids", grids },
                                     { "network_v2106", network_2106 },
                                     { "attention", attention },
                                     { "gatconv", gat_convs },
                                     { "layers", emlp_layers },
                                     { "reduced_tensor_products", reduced_products },
                                     { "groups", groups },
                                     { "dynamics_models", lie_dynamics },
                                     { "molecnet", lie_molecule },
                                     { "imglieresnet", lie_image },
                                     { "lieresnet", lie_resnets },
                                     { "masked_batchnorm", masked_norm },
                                     { "lieconv_layer", lie_convs },
                                     { "lift", lifts },
                                     { "fps", fps },
                                     { "misc", misc },
                                     { "lieselfattention", self_attention },
                                     { "lietransformer", lie_transformers },
                                     { "settransformer", set_transformers },
                                     { "projectors", projectors },
                                     { "physics", physics },
                                     { "constellation", constellation },
                                     { "datasets", datasets },
                                     { "equiformer_v1", equiformer_v1 },
                                     { "dtp_", former_product },
                                     { "mlp_attention", former_attention },
                                     { "l2_attention", former_attention },
                                     { "feedforward", former_feedforward },
                                     { "model_", former_model } };

static void fail_file(golden *g, const char *why)
{
    golden_failed++;
    printf("FAILED %-24s %-34s %s\n", g->file, "-", why);
}

/* Gradients of network files may lie in a file of their own, NAME_grad beside NAME. */
static void open_companion(golden *g)
{
    char path[1200];
    FILE *test;
    snprintf(path, sizeof path, "%.*s_grad.safetensors",
             (int)(strlen(g->path) - strlen(".safetensors")), g->path);
    if (strncmp(g->file, "network_", 8) || !(test = fopen(path, "rb"))) return;
    fclose(test);
    g->f2 = eqnn_file_open(g->files, path);
    if (g->f2) g->used2 = (char *)calloc((size_t)eqnn_file_count(g->f2) + 1, 1);
}

/* NAME_grad beside NAME is read with it. */
static int belongs_to_network(golden *g)
{
    char path[1200];
    const char *end = strstr(g->path, "_grad.safetensors");
    FILE *test = NULL;
    if (!end || strncmp(g->file, "network_", 8)) return 0;
    snprintf(path, sizeof path, "%.*s.safetensors", (int)(end - g->path), g->path);
    test = fopen(path, "rb");
    if (test) fclose(test);
    return test != NULL;
}

static void check_used(golden *g)
{
    int unknown = 0;
    const char *name = "";
    for (int k = 0; k < 2; k++) {
        eqnn_file *f = k ? g->f2 : g->f;
        for (int i = 0; f && i < eqnn_file_count(f); i++) {
            if ((k ? g->used2 : g->used)[i]) continue;
            name = eqnn_file_entry(f, i)->name;
            unknown++;
        }
    }
    if (!unknown) return;
    golden_failed++;
    printf("FAILED %-24s %-34s %d entries belong to no case known here, as \"%s\"\n", g->file, "-",
           unknown, name);
}

/* A .tsv beside a .safetensors of the same name is read with that. */
static void run_table(const char *path)
{
    golden g;
    char other[1200];
    const char *slash = strrchr(path, '/');
    memset(&g, 0, sizeof g);
    g.path = path;
    snprintf(g.file, sizeof g.file, "%s", slash ? slash + 1 : path);
    *strstr(g.file, ".tsv") = 0;
    snprintf(other, sizeof other, "%.*s.safetensors", (int)(strlen(path) - strlen(".tsv")), path);
    FILE *beside = fopen(other, "rb");
    if (beside) { fclose(beside); return; }
    for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++)
        if (!strncmp(g.file, tables[i].begins, strlen(tables[i].begins))) {
            each_row(&g, path, tables[i].row);
            if (!g.cases) fail_file(&g, "no case in it");
            return;
        }
    fail_file(&g, "unknown kind of table");
}

static void run_file(const char *path)
{
    if (strlen(path) > 4 && !strcmp(path + strlen(path) - 4, ".tsv")) { run_table(path); return; }

    golden g;
    const char *slash = strrchr(path, '/');
    const golden_kind *kind = NULL;
    eqnn_opts o = test_opts();
    memset(&g, 0, sizeof g);
    g.path = path;
    snprintf(g.file, sizeof g.file, "%s", slash ? slash + 1 : path);
    if (!strstr(g.file, ".safetensors")) { fail_file(&g, "unknown kind of file"); return; }
    *strstr(g.file, ".safetensors") = 0;
    if (belongs_to_network(&g)) return;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (!strncmp(g.file, kinds[i].begins, strlen(kinds[i].begins))) kind = &kinds[i];
    if (!kind) { fail_file(&g, "unknown kind of file"); return; }
    if (!kind->run) { skip(&g, "-", "not built yet"); return; }
    g.files = eqnn_make(&o);
    g.f = eqnn_file_open(g.files, path);
    if (g.f) open_companion(&g);
    if (eqnn_error(g.files)) {
        fail_file(&g, eqnn_error(g.files));
    } else {
        g.used = (char *)calloc((size_t)eqnn_file_count(g.f) + 1, 1);
        kind->run(&g);
        if (!g.cases) fail_file(&g, "no case in it");
        check_used(&g);
    }
    free(g.used);
    free(g.used2);
    eqnn_file_close(g.f);
    eqnn_file_close(g.f2);
    eqnn_free(g.files);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void run_folder(const char *path)
{
    DIR *dir = opendir(path);
    struct dirent *d;
    char *names[4096];
    int n = 0;
    while (dir && (d = readdir(dir)) != NULL && n < 4096) {
        if (!strstr(d->d_name, ".safetensors") && !strstr(d->d_name, ".tsv")) continue;
        names[n] = (char *)malloc(strlen(path) + strlen(d->d_name) + 2);
        sprintf(names[n++], "%s/%s", path, d->d_name);
    }
    if (dir) closedir(dir);
    qsort(names, (size_t)n, sizeof names[0], by_name);
    for (int i = 0; i < n; i++) {
        run_file(names[i]);
        free(names[i]);
    }
    if (n) return;
    golden_failed++;
    printf("FAILED %s: no golden files there\n", path);
}

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IOLBF, BUFSIZ); /* a crash loses nothing */
    for (int i = 1; i < argc; i++) {
        size_t n = strlen(argv[i]);
        if (!strcmp(argv[i], "-q")) golden_quiet = 1;
        else if (n > 12 && !strcmp(argv[i] + n - 12, ".safetensors")) run_file(argv[i]);
        else if (n > 4 && !strcmp(argv[i] + n - 4, ".tsv")) run_file(argv[i]);
        else run_folder(argv[i]);
    }
    if (golden_skipped)
        printf("%d passed, %d failed, %d skipped\n", golden_passed, golden_failed, golden_skipped);
    else printf("%d passed, %d failed\n", golden_passed, golden_failed);
    return golden_failed > 0 || golden_passed + golden_skipped == 0;
}
