/* shared.c - the library as another language sees it: symbols, pointers and numbers, no header

      shared library version function ...

   Every function must be there; some are called as README's examples do. Run by shared.sh. */
#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *library;

/* POSIX makes a function of what dlsym gives; ISO C has no cast for that. */
static int find(void *place, const char *name)
{
    void *p = dlsym(library, name);
    memcpy(place, &p, sizeof p);
    if (!p) printf("    shared: no %s\n", name);
    return p != NULL;
}

static int check(int good, const char *what)
{
    if (!good) printf("    shared: %s\n", what);
    return good;
}

/* Harmonics of a vector, an error, and the version. */
static int call(const char *wanted)
{
    const char *(*version)(void), *(*error)(const void *);
    void *(*make)(const void *), *(*from)(void *, int, int, const double *);
    void *(*harmonics)(void *, int, const void *), *(*fail)(void *, const char *);
    const float *(*data)(const void *);
    void (*clear)(void *), (*end)(void *);
    if (!find(&version, "eqnn_version") || !find(&make, "eqnn_make_f32") ||
        !find(&from, "eqnn_from_double") || !find(&harmonics, "eqnn_spherical_harmonics") ||
        !find(&data, "eqnn_data_f32") || !find(&error, "eqnn_error") ||
        !find(&fail, "eqnn_fail_text") || !find(&clear, "eqnn_clear") || !find(&end, "eqnn_free"))
        return 0;
    const double r[3] = { 0.5, -1, 2 };
    void *c = make(NULL);
    const float *Y = data(harmonics(from(c, 1, 3, r), 1, NULL));
    int good = check(!strcmp(version(), wanted), "eqnn_version is not EQNN_VERSION") &&
               check(Y && Y[0] == 1, "degree 0 is not 1");
    for (int k = 0; k < 3 && good; k++)
        good = check(fabs((double)Y[1 + k] - sqrt(3.) * r[k]) < 1e-6, "degree 1 is not sqrt(3) r");
    good = good && check(!fail(c, "100%s sure"), "an error is not NULL") &&
           check(error(c) && !strcmp(error(c), "100%s sure"), "an error's text is another");
    clear(c);
    good = good && check(!error(c), "an error stays");
    end(c);
    return good;
}

/* What begins as eqnn_graph_opts does, and is no smaller. */
typedef struct graph_opts { int sources, targets; void *rest[16]; } graph_opts;

/* The edges 0 to 1 and 1 to 0 stand in a graph by their targets. */
static int call_graph(void)
{
    void *(*make)(const void *), *(*graph)(void *, int, const int *, const int *, const void *);
    const int *(*order)(const void *);
    void (*end)(void *);
    if (!find(&make, "eqnn_make_f32") || !find(&graph, "eqnn_graph_make") ||
        !find(&order, "eqnn_graph_order") || !find(&end, "eqnn_free"))
        return 0;
    const int source[2] = { 0, 1 }, target[2] = { 1, 0 };
    graph_opts o = { 2, 2, { NULL } };
    void *c = make(NULL);
    const int *at = order(graph(c, 2, source, target, &o));
    int good = check(at && at[0] == 1 && at[1] == 0, "edges are not in the order of their targets");
    end(c);
    return good;
}

int main(int argc, char **argv)
{
    int missing = argc < 4;
    library = argc > 2 ? dlopen(argv[1], RTLD_NOW | RTLD_LOCAL) : NULL;
    if (!library) {
        printf("    shared: %s\n0 passed, 1 failed\n", argc > 2 ? dlerror() : "which library?");
        return EXIT_FAILURE;
    }
    for (int i = 3; i < argc; i++) {
        void *p;
        missing += !find(&p, argv[i]);
    }
    missing += !check(argc > 400, "hardly any function is declared");
    int good = call(argv[2]) && call_graph();
    dlclose(library);
    printf("%d passed, %d failed\n", !missing + good, !!missing + !good);
    return missing || !good ? EXIT_FAILURE : EXIT_SUCCESS;
}
