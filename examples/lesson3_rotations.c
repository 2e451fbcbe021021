/* lesson3_rotations.c - how numbers turn when the world turns

   cc -O2 -I. examples/lesson3_rotations.c -lm -o lesson3 && ./lesson3

   YOU WILL SEE   two vectors multiplied in the three ways that respect rotations: dot product,
                  cross product and a symmetric matrix; what a mirror does to each; and at the
                  end the largest error of f(R x) = R f(x) over random rotations and mirrors, for
                  a function that respects them (rounding) and for one that does not (of the size
                  of f itself).
   IT TEACHES     an irrep is a kind of number: 0e a scalar, 1o a vector such as a position, 1e
                  an axial vector such as a torque, 2e the five numbers of a symmetric matrix
                  without trace. Products of irreps are sums of irreps, and that is all an
                  equivariant network is made of. */
#define EQNN_IMPLEMENTATION
#include "eqnn.h"

static void print_row(const char *title, const eqnn_tensor *x)
{
    printf("    %-22s", title);
    for (int i = 0; i < eqnn_cols(x); i++) printf(" %7.3f", eqnn_at(x, 0, i));
    printf("\n");
}

/* --- 1. the product of two vectors --- */

/* A vector times a vector is 3 x 3 = 9 numbers. They fall apart into 1 + 3 + 5 that never mix.
   Each part is divided such that random vectors of unit variance give numbers of unit variance:
   the dot product is a sum of 3 terms, the cross product of 2. That keeps deep networks from
   blowing up. */
static eqnn_tensor *product(eqnn_tensor *a, eqnn_tensor *b)
{
    eqnn_ctx *c = eqnn_context(a);
    const eqnn_irreps *vector = eqnn_irreps_make(c, "1x1o");
    const eqnn_product *all = eqnn_product_channelwise(c, vector, vector, NULL, NULL);
    /* Every path has weight 1. */
    eqnn_tensor *ones = eqnn_full(c, 1, eqnn_product_weights(all), 1);
    return eqnn_tensor_product(a, b, ones, all);
}

static void show_product(eqnn_tensor *a, eqnn_tensor *b)
{
    eqnn_tensor *p = product(a, b);
    printf("a times b is %s\n", eqnn_label_of(p)->name);
    print_row("a", a);
    print_row("b", b);
    print_row("0e, dot / sqrt 3", eqnn_slice(p, 0, 1));
    print_row("1e, cross / sqrt 2", eqnn_slice(p, 1, 3));
    print_row("2e, symmetric matrix", eqnn_slice(p, 4, 5));
}

/* --- 2. the mirror --- */

/* Reflection through the origin: all coordinates change sign. Two minus signs make a plus, so
   neither the dot nor the cross product of two vectors changes. A vector is odd (o), its product
   is even (e). */
static void show_mirror(eqnn_tensor *a, eqnn_tensor *b)
{
    const double inversion[9] = { -1, 0, 0, 0, -1, 0, 0, 0, -1 };
    eqnn_tensor *p = product(eqnn_rotate(a, inversion), eqnn_rotate(b, inversion));
    printf("\nthe same in the mirror (all coordinates change sign)\n");
    print_row("a", eqnn_rotate(a, inversion));
    print_row("0e, dot / sqrt 3", eqnn_slice(p, 0, 1));
    print_row("1e, cross / sqrt 2", eqnn_slice(p, 1, 3));
    print_row("2e, symmetric matrix", eqnn_slice(p, 4, 5));
}

/* --- 3. functions that respect rotations, and one that does not --- */

/* Harmonics turn a direction into irreps 0e, 1o, 2e, 3o, ...: everything a network needs to see of
   it. */
static eqnn_tensor *harmonics(eqnn_tensor *const *x, int n, void *user)
{
    (void)n, (void)user;
    return eqnn_spherical_harmonics(x[0], 6, NULL);
}

/* A whole layer with random weights: mixes irreps of one kind only, and multiplies. */
static eqnn_tensor *layer(eqnn_tensor *const *x, int n, void *user)
{
    (void)user;
    eqnn_tensor *h = harmonics(x, n, NULL);
    h = eqnn_irreps_linear(h, "mix", "8x0e+8x1o+8x2e", NULL);
    return eqnn_fully_connected(h, h, "multiply", "1x0e+1x1o+1x2e", NULL);
}

/* Coordinate by coordinate: a network that knows nothing of rotations does this all the time. To
   do it here one has to take the label off, and claim afterwards that the result is a vector. */
static eqnn_tensor *pointwise(eqnn_tensor *const *x, int n, void *user)
{
    (void)n, (void)user;
    return eqnn_as(eqnn_tanh(eqnn_as(x[0], NULL)), eqnn_label_of(x[0]));
}

static double error_of(eqnn_function f, eqnn_tensor *x)
{
    return eqnn_check_equivariance(f, &x, 1, NULL, 20, NULL);
}

int main(void)
{
    eqnn_ctx *c = eqnn_make(NULL);
    const eqnn_irreps *vector = eqnn_irreps_make(c, "1x1o");
    const eqnn_real ex[3] = { 1, 0, 0 }, exy[3] = { 1, 2, 0 };
    eqnn_tensor *a = eqnn_as(eqnn_from(c, 1, 3, ex), vector),
                *b = eqnn_as(eqnn_from(c, 1, 3, exy), vector);
    show_product(a, b);
    show_mirror(a, b);

    eqnn_tensor *x = eqnn_as(eqnn_normal(c, "directions", 10, 3), vector);
    double good = error_of(harmonics, x), learned = error_of(layer, x),
           bad = error_of(pointwise, x);
    printf("\nlargest |f(R x) - R f(x)| / |f| over 20 random rotations and mirrors R\n");
    printf("    harmonics of degree 0 to 6      %.1e\n", good);
    printf("    a layer with random weights     %.1e\n", learned);
    printf("    tanh of each coordinate         %.1e\n", bad);

    if (eqnn_error(c)) printf("error: %s\n", eqnn_error(c));
    int proved = !eqnn_error(c) && good < 1e-4 && learned < 1e-4 && bad > 1e-2;
    eqnn_free(c);
    return proved ? 0 : 1;
}
