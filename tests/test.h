/* test.h - one page of testing; one program a subject

      #include "test.h"

      TEST(tanh_derivatives)
      {
          eqnn_ctx *c = test_context();                          // freed when the test ends
          CHECK_DERIVATIVES(eqnn_tanh, test_normal(c, 3, 4), 2); // first and second, by differences
      }

      TEST_MAIN

   ./program runs every test, ./program name ... only those named; -v prints numbers as well. A test
   that passes prints nothing; an error that is left in a context fails its test. The environment's
   EQNN_LANES, EQNN_THREADS and EQNN_DEVICE choose what test_context() makes. A program that tests
   private functions defines EQNN_STATIC and EQNN_IMPLEMENTATION before it includes this file. */
#ifndef EQNN_TEST_H
#define EQNN_TEST_H

#include "../eqnn.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

#if defined(__GNUC__) || defined(__clang__)
#define TEST__UNUSED __attribute__((unused))
#else
#define TEST__UNUSED
#endif

typedef struct test_case { const char *name; void (*run)(void); struct test_case *next; } test_case;
TEST__UNUSED static test_case *test_first, *test_last;
static eqnn_ctx *test_contexts[64];
static int test_context_count, test_failures, test_verbose, test_serial;

/* A test puts itself on the list before main starts. */
#define TEST(title)                                                                                \
    static void test_run_##title(void);                                                            \
    static test_case test_case_##title = { #title, test_run_##title, NULL };                       \
    __attribute__((constructor)) static void test_add_##title(void)                                \
    {                                                                                              \
        if (test_last) test_last->next = &test_case_##title;                                       \
        else test_first = &test_case_##title;                                                      \
        test_last = &test_case_##title;                                                            \
    }                                                                                              \
    static void test_run_##title(void)
#define TEST_MAIN int main(int argc, char **argv) { return test_main(argc, argv); }

#define CHECK(condition) test_check((condition) ? 1 : 0, __FILE__, __LINE__, #condition)
#define CHECK_NEAR(a, b, tolerance) test_near(a, b, tolerance, __FILE__, __LINE__, #a " = " #b)
#define CHECK_TEXT(a, b) test_text(a, b, __FILE__, __LINE__, #a)
/* The context has an error whose sentence holds part; the error is cleared. */
#define CHECK_ERROR(c, part) test_error(c, part, __FILE__, __LINE__)
#define CHECK_OK(c)                                                                                \
    test_check(!eqnn_error(c), __FILE__, __LINE__, eqnn_error(c) ? eqnn_error(c) : "")
/* Derivatives of first (and second) order against differences: of f(x), of f(a, b), or of any
   eqnn_function f(x[], n, user). */
#define CHECK_DERIVATIVES(f, x, order) test_derive1(f, x, order, __FILE__, __LINE__, #f)
#define CHECK_DERIVATIVES2(f, a, b, order) test_derive2(f, a, b, order, __FILE__, __LINE__, #f)
#define CHECK_DERIVATIVES_OF(f, x, n, user, order) \
    test_derive(f, x, n, user, order, __FILE__, __LINE__, #f)

/* What rounding allows: a number for double and one for float builds. */
TEST__UNUSED static double test_eps(double in_double, double in_float)
{
    return sizeof(eqnn_real) == 8 ? in_double : in_float;
}

TEST__UNUSED static int test_check(int good, const char *file, int line, const char *what)
{
    if (!good) { test_failures++; printf("    %s:%d: %s\n", file, line, what); }
    return good;
}

TEST__UNUSED static int test_near(double a, double b, double tol, const char *file, int line,
                                  const char *what)
{
    int good = fabs(a - b) <= tol * fmax(1, fabs(b)); /* false for NaN */
    if (!good) {
        test_failures++;
        printf("    %s:%d: %s: %.17g, %.17g differ by %.3g > %.3g\n", file, line, what, a, b,
               fabs(a - b), tol);
    }
    return good;
}

TEST__UNUSED static int test_text(const char *a, const char *b, const char *file, int line,
                                  const char *what)
{
    int good = a && b && !strcmp(a, b);
    if (!good) {
        test_failures++;
        printf("    %s:%d: %s is \"%s\", not \"%s\"\n", file, line, what, a ? a : "NULL",
               b ? b : "NULL");
    }
    return good;
}

TEST__UNUSED static int test_error(eqnn_ctx *c, const char *part, const char *file, int line)
{
    const char *e = eqnn_error(c);
    int good = e && strstr(e, part);
    if (!good) {
        test_failures++;
        printf("    %s:%d: wanted an error with \"%s\", got \"%s\"\n", file, line, part,
               e ? e : "none");
    } else if (test_verbose) {
        printf("    error: %s\n", e);
    }
    eqnn_clear(c);
    return good;
}

/* Is x there, and every number of it finite? */
TEST__UNUSED static int test_finite(const eqnn_tensor *x)
{
    for (int i = 0; i < eqnn_rows(x); i++)
        for (int k = 0; k < eqnn_cols(x); k++)
            if (!isfinite(eqnn_at(x, i, k))) return 0;
    return x != NULL;
}

/* Prints with -v only: equivariance errors, times, sizes. */
TEST__UNUSED EQNN__PRINTF(1, 2) static void test_note(const char *format, ...)
{
    va_list list;
    if (!test_verbose) return;
    va_start(list, format);
    printf("    ");
    vprintf(format, list);
    printf("\n");
    va_end(list);
}

/* Prints always: the few numbers that "make test" shows. */
TEST__UNUSED static void test_show(const char *title, const char *const *names, const double *x,
                                   int n)
{
    printf("%s:", title);
    for (int k = 0; k < n; k++) printf("%s %s %.0e", k ? "," : "", names[k], x[k]);
    printf("\n");
}

/* Choices of a trial, which begins with a test_choices of its own: 0..n-1, and from -1 to 1. */
static uint64_t test_choices;

TEST__UNUSED static int test_pick(int n)
{
    test_choices = test_choices * 6364136223846793005u + 1442695040888963407u;
    return (int)(test_choices >> 33) % n;
}

TEST__UNUSED static double test_number(void)
{
    return test_pick(2000) / 1000.0 - 1;
}

static eqnn_opts test_opts(void)
{
    eqnn_opts o;
    const char *lanes = getenv("EQNN_LANES"), *threads = getenv("EQNN_THREADS");
    memset(&o, 0, sizeof o);
    o.seed = 1;
    o.lanes = lanes ? atoi(lanes) : 0;
    o.threads = threads ? atoi(threads) : 0;
    o.device = getenv("EQNN_DEVICE");
    return o;
}

TEST__UNUSED static eqnn_ctx *test_context(void)
{
    eqnn_opts o = test_opts();
    eqnn_ctx *c = eqnn_make(&o);
    if (!c || test_context_count == 64) { printf("    no context\n"); exit(1); }
    return test_contexts[test_context_count++] = c;
}

/* Random inputs, other ones at each call. */
TEST__UNUSED static eqnn_tensor *test_normal(eqnn_ctx *c, int rows, int cols)
{
    return eqnn_normal(c, eqnn_format(c, "test%d", test_serial++), rows, cols);
}

TEST__UNUSED static eqnn_tensor *test_uniform(eqnn_ctx *c, int rows, int cols, double low,
                                              double high)
{
    eqnn_tensor *x = eqnn_uniform(c, eqnn_format(c, "test%d", test_serial++), rows, cols);
    return eqnn_detach(eqnn_shift(eqnn_scale(x, high - low), low));
}

/* Random rows of such irreps. */
TEST__UNUSED static eqnn_tensor *test_features(eqnn_ctx *c, int rows, const char *irreps)
{
    const eqnn_irreps *a = eqnn_irreps_make(c, irreps);
    return eqnn_as(test_normal(c, rows, a ? a->cols : 0), a);
}

/* max |a - b| / max(1, max |b|); infinite when the sizes differ or something is not a number. */
TEST__UNUSED static double test_difference(const eqnn_tensor *a, const eqnn_tensor *b)
{
    double worst = 0, size = 1;
    int rows = eqnn_rows(b), cols = eqnn_cols(b);
    if (!a || !b || eqnn_rows(a) != rows || eqnn_cols(a) != cols) return INFINITY;
    for (int i = 0; i < rows; i++) {
        for (int j = 0; j < cols; j++) {
            double d = fabs(eqnn_at(a, i, j) - eqnn_at(b, i, j));
            if (!(d < INFINITY)) return INFINITY;
            worst = fmax(worst, d);
            size = fmax(size, fabs(eqnn_at(b, i, j)));
        }
    }
    return worst / size;
}
#define CHECK_SAME(a, b, tolerance) \
    test_near(test_difference(a, b), 0, tolerance, __FILE__, __LINE__, #a " = " #b)

TEST__UNUSED static int test_derive(eqnn_function f, eqnn_tensor *const *x, int n, void *user,
                                    int order, const char *file, int line, const char *what)
{
    double tol = order > 1 ? test_eps(1e-5, 5e-2) : test_eps(1e-7, 1e-2);
    double error = eqnn_check_derivatives(f, x, n, user, order, 0);
    test_note("derivatives of %s, order %d: %.2e", what, order, error);
    return test_near(error, 0, tol, file, line, what);
}

/* All weights as one number (FNV-1a): two runs that differ in one bit differ in it. The bytes of a
   number are taken from its lowest to its highest, on every processor. */
TEST__UNUSED static uint64_t test_hash(eqnn_ctx *c)
{
    const int one = 1;
    size_t flip = *(const unsigned char *)&one ? 0 : sizeof(eqnn_real) - 1;
    uint64_t h = UINT64_C(14695981039346656037);
    for (int i = 0; i < eqnn_parameter_count(c); i++) {
        const eqnn_tensor *w = eqnn_parameter_at(c, i);
        const unsigned char *b = (const unsigned char *)eqnn_data(w);
        size_t n = (size_t)eqnn_rows(w) * (size_t)eqnn_cols(w) * sizeof(eqnn_real);
        for (size_t k = 0; k < n; k++) h = (h ^ b[k ^ flip]) * UINT64_C(1099511628211);
    }
    return h;
}

/* f commutes with random rotations and reflections, which act on arguments and result by their
   labels. */
TEST__UNUSED static int test_symmetry(eqnn_function f, eqnn_tensor *const *x, int n, void *user,
                                      const char *file, int line, const char *what)
{
    double error = eqnn_check_equivariance(f, x, n, user, 4, NULL);
    test_note("equivariance error of %s: %.2e", what, error);
    return test_near(error, 0, test_eps(1e-11, 1e-4), file, line, what);
}
#define CHECK_SYMMETRY(f, x, n, user) \
    test_symmetry(f, x, n, user, __FILE__, __LINE__, #f " is equivariant")

typedef struct test_operation {
    eqnn_tensor *(*f1)(eqnn_tensor *), *(*f2)(eqnn_tensor *, eqnn_tensor *);
} test_operation;

TEST__UNUSED static eqnn_tensor *test_apply(eqnn_tensor *const *x, int n, void *user)
{
    test_operation *o = (test_operation *)user;
    return n == 1 ? o->f1(x[0]) : o->f2(x[0], x[1]);
}

TEST__UNUSED static int test_derive1(eqnn_tensor *(*f)(eqnn_tensor *), eqnn_tensor *x, int order,
                                     const char *file, int line, const char *what)
{
    test_operation o = { f, NULL };
    return test_derive(test_apply, &x, 1, &o, order, file, line, what);
}

TEST__UNUSED static int test_derive2(eqnn_tensor *(*f)(eqnn_tensor *, eqnn_tensor *),
                                     eqnn_tensor *a, eqnn_tensor *b, int order, const char *file,
                                     int line, const char *what)
{
    test_operation o = { NULL, f };
    eqnn_tensor *x[2] = { a, b };
    return test_derive(test_apply, x, 2, &o, order, file, line, what);
}

static int test_one(const test_case *t)
{
    test_failures = test_serial = 0;
    t->run();
    while (test_context_count > 0) {
        eqnn_ctx *c = test_contexts[--test_context_count];
        const char *e = eqnn_error(c);
        if (e) { test_failures++; printf("    error left: %s\n", e); }
        eqnn_free(c);
    }
    if (test_failures || test_verbose)
        printf("%s %s\n", test_failures ? "FAILED" : "passed", t->name);
    return test_failures == 0;
}

TEST__UNUSED static int test_main(int argc, char **argv)
{
    int passed = 0, failed = 0, names = 0, found = 0;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "-v")) test_verbose = 1;
        else names++;
    }
    for (test_case *t = test_first; t; t = t->next) {
        int wanted = names == 0;
        for (int i = 1; i < argc; i++) wanted |= !strcmp(argv[i], t->name);
        found += wanted;
        if (!wanted) continue;
        if (test_one(t)) passed++;
        else failed++;
    }
    if (!found) {
        printf("no such test; there are:\n");
        for (test_case *t = test_first; t; t = t->next) printf("  %s\n", t->name);
    }
    printf("%d passed, %d failed\n", passed, failed);
    return failed > 0 || !found;
}

#endif
