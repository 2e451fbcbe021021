/* lesson1_tensors.c - tensors are matrices that know what they are

   cc -O2 -I. examples/lesson1_tensors.c -lm -o lesson1 && ./lesson1

   YOU WILL SEE   a table of points, their centre, all their distances, what happens to a
                  forbidden operation, and at the end how far tensors and a plain C loop are
                  apart: 0 or rounding.
   IT TEACHES     rows are things and columns are features; a side of length 1 stretches and
                  nothing else does; integers choose rows; labels say what a column means and
                  forbid nonsense; an error is a sentence that waits for you. */
#define EQNN_IMPLEMENTATION
#include "eqnn.h"

enum { POINTS = 4 };

static const double points[POINTS][3] = { { 0, 0, 0 }, { 3, 0, 0 }, { 3, 4, 0 }, { 3, 4, 12 } };

/* All squared distances from |a - b|^2 = |a|^2 + |b|^2 - 2 a.b: [n,n] in one line of algebra. */
static eqnn_tensor *squared_distances(eqnn_tensor *x)
{
    eqnn_tensor *squares = eqnn_sum_cols(eqnn_square(x)); /* [n,1]: |a|^2, one row a point    */
    eqnn_tensor *products = eqnn_matmul_t(x, x, 0, 1);    /* [n,n]: x times x transposed      */
    eqnn_tensor *sums = eqnn_add(squares,
                                 eqnn_transpose(squares)); /* [n,1] + [1,n] stretch to [n,n]  */
    return eqnn_sub(sums, eqnn_scale(products, 2));
}

/* The same as a C programmer would write it. */
static double squared_distance(int i, int j)
{
    double sum = 0;
    for (int k = 0; k < 3; k++)
        sum += (points[i][k] - points[j][k]) * (points[i][k] - points[j][k]);
    return sum;
}

int main(void)
{
    /* Everything lives in a context: memory, the record of what was computed, the first error. */
    eqnn_ctx *c = eqnn_make(NULL);

    eqnn_tensor *x = eqnn_from_double(c, POINTS, 3, points[0]);
    eqnn_print(x, "four points, a row each", stdout);

    eqnn_tensor *centre = eqnn_mean_rows(x); /* [1,3] */
    eqnn_print(centre, "their centre, one row", stdout);
    eqnn_print(eqnn_sub(x, centre), "points minus centre: the one row is stretched to four",
               stdout);

    eqnn_tensor *d2 = squared_distances(x), *d = eqnn_sqrt(d2);
    eqnn_print(d, "all distances", stdout);

    /* Integers are not tensors but lists that choose rows: here the path 0 -> 1 -> 2 -> 3. */
    const int from[] = { 0, 1, 2 }, to[] = { 1, 2, 3 };
    eqnn_ints *start = eqnn_ints_make(c, 3, from, POINTS, 0),
              *end = eqnn_ints_make(c, 3, to, POINTS, 0);
    eqnn_tensor *steps = eqnn_sub(eqnn_take(x, end), eqnn_take(x, start));
    printf("the path 0 -> 1 -> 2 -> 3 is %g long\n\n", eqnn_value(eqnn_sum(eqnn_norm(steps))));

    /* A label tells what the columns mean: "1x1o" is one vector. Lengths of vectors are fine, but
       the sine of each coordinate is not: turn the points and it turns into something else. */
    eqnn_tensor *vectors = eqnn_as(x, eqnn_irreps_make(c, "1x1o"));
    printf("of the label %s, the lengths:\n", eqnn_label_of(vectors)->name);
    eqnn_print(eqnn_norm(vectors), "lengths", stdout);
    if (!eqnn_sin(vectors)) printf("the sine of a vector is refused:\n    %s\n", eqnn_error(c));

    /* From an error on every operation gives NULL, so a program may ask once, at the end. */
    if (!eqnn_add(x, x)) printf("and nothing else is computed, until the error is cleared\n");
    eqnn_clear(c);

    double worst = 0;
    for (int i = 0; i < POINTS; i++)
        for (int j = 0; j < POINTS; j++) {
            double error = eqnn_at(d2, i, j) - squared_distance(i, j);
            if (error < 0) error = -error;
            if (error > worst) worst = error;
        }
    printf("\nlargest difference between tensors and loops: %g\n", worst);
    eqnn_free(c);
    return worst < 1e-4 ? 0 : 1;
}
