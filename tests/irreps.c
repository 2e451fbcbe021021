/* irreps.c - section 10: strings and lists of irreps, rotations, coupling tensors, Wigner matrices,
   harmonics (their kernels: kernels.c) */
#include "test.h"

/* ---- strings ---- */

TEST(strings_good)
{
    static const struct { const char *text, *name; int blocks, cols; } good[] = {
        { "", "", 0, 0 },
        { " \t\n", "", 0, 0 },
        { "0e", "1x0e", 1, 1 },
        { "1o", "1x1o", 1, 3 },
        { "1x0e+16x1o", "1x0e+16x1o", 2, 49 },
        { " 16 x 0e + 8x1o ", "16x0e+8x1o", 2, 40 },
        { "2 x 0e", "2x0e", 1, 2 },
        { "3x1y+2x2y", "3x1o+2x2e", 2, 19 },
        { "0x1e+1x0o", "0x1e+1x0o", 2, 1 },
        { "0e+0e", "1x0e+1x0e", 2, 2 },
        { "007x12e", "7x12e", 1, 175 },
        { "1e\n+\t1o", "1x1e+1x1o", 2, 6 },
        { "128x0e+128x1o+128x2e+128x3o", "128x0e+128x1o+128x2e+128x3o", 4, 2048 },
    };
    eqnn_ctx *c = test_context();
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        const eqnn_irreps *a = eqnn_irreps_make(c, good[i].text);
        if (!CHECK(a != NULL)) continue;
        CHECK_TEXT(a->name, good[i].name);
        CHECK(a->blocks == good[i].blocks && a->cols == good[i].cols);
        CHECK(a == eqnn_irreps_make(c, a->name)); /* printing and reading is the identity */
    }
}

TEST(strings_bad)
{
    static const struct { const char *text, *part; } bad[] = {
        { "1e+", "character 4:" },        { "+1e", "character 1:" },
        { "1e++1o", "character 4:" },     { "-1x0e", "character 1:" },
        { "1.5x0e", "character 2:" },     { "2x", "character 3:" },
        { "2x1", "character 4:" },        { "x1e", "character 1:" },
        { "1x1x1e", "character 4:" },     { "1E", "character 2: parities are small" },
        { "1X0e", "character 2:" },       { "3x1o 2x0e", "character 6:" },
        { "1oe", "character 3:" },        { "99999999999x0e", "too large" },
        { "1x99999999999e", "too large" }, { "1u", "character 2:" },
        { "hello", "character 1:" },      { "1o,2e", "character 3:" },
    };
    eqnn_ctx *c = test_context();
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        CHECK(eqnn_irreps_make(c, bad[i].text) == NULL);
        CHECK_ERROR(c, bad[i].part);
    }
    CHECK(eqnn_irreps_make(c, NULL) == NULL);
    CHECK_ERROR(c, "no text");
    CHECK(eqnn_irreps_make(c, "90000000x1000e") == NULL);
    CHECK_ERROR(c, "columns");
    CHECK(eqnn_irreps_make(NULL, "1o") == NULL);
}

/* ---- lists ---- */

TEST(lists)
{
    eqnn_ctx *c = test_context();
    const eqnn_irreps *a = eqnn_irreps_make(c, "1e+1e+0e+1e");
    const eqnn_irreps *b = eqnn_irreps_make(c, "2x0e+0x3o");
    CHECK_TEXT(eqnn_irreps_simplify(c, a)->name, "2x1e+1x0e+1x1e");
    CHECK_TEXT(eqnn_irreps_simplify(c, b)->name, "2x0e");
    CHECK_TEXT(eqnn_irreps_concat(c, a, b)->name, "1x1e+1x1e+1x0e+1x1e+2x0e+0x3o");
    CHECK_TEXT(eqnn_irreps_times(c, eqnn_irreps_make(c, "0e+1e"), 2)->name, "1x0e+1x1e+1x0e+1x1e");
    CHECK_TEXT(eqnn_irreps_times(c, a, 0)->name, "");
    CHECK_TEXT(eqnn_irreps_regroup(c, a)->name, "1x0e+3x1e");
    CHECK_TEXT(eqnn_irreps_spherical(c, 3)->name, "1x0e+1x1o+1x2e+1x3o");

    int map[6];
    const eqnn_irreps *mixed = eqnn_irreps_make(c, "2e+1e+0e+1o+0o+3x1e");
    CHECK_TEXT(eqnn_irreps_sort(c, mixed, map)->name, "1x0o+1x0e+1x1o+1x1e+3x1e+1x2e");
    static const int want[6] = { 5, 3, 1, 2, 0, 4 };
    for (int i = 0; i < 6; i++) CHECK(map[i] == want[i]);

    CHECK_TEXT(eqnn_irreps_filter(c, mixed, eqnn_irreps_make(c, "1e+0o"), NULL, -1)->name,
               "1x1e+1x0o+3x1e");
    CHECK_TEXT(eqnn_irreps_filter(c, mixed, NULL, eqnn_irreps_make(c, "1e+0o"), -1)->name,
               "1x2e+1x0e+1x1o");
    CHECK_TEXT(eqnn_irreps_filter(c, mixed, NULL, NULL, 0)->name, "1x0e+1x0o");
    CHECK(eqnn_irreps_count(mixed, 1, 1) == 4 && eqnn_irreps_count(mixed, 5, 1) == 0);
    CHECK(eqnn_irreps_has(b, 3, -1) && eqnn_irreps_count(b, 3, -1) == 0);
    CHECK(eqnn_irreps_lmax(mixed) == 2 && eqnn_irreps_lmax(b) == 0);
    CHECK(eqnn_irreps_lmax(eqnn_irreps_make(c, "")) == -1);

    static const int rows[3][3] = { { 2, 0, 1 }, { 0, 1, -1 }, { 3, 2, 1 } };
    CHECK_TEXT(eqnn_irreps_blocks(c, rows, 3)->name, "2x0e+0x1o+3x2e");
    static const int wrong[1][3] = { { 2, 0, 0 } };
    CHECK(eqnn_irreps_blocks(c, wrong, 1) == NULL);
    CHECK_ERROR(c, "block 0");
    CHECK(eqnn_irreps_spherical(c, -1) == NULL);
    CHECK_ERROR(c, "lmax");
    CHECK(eqnn_irreps_times(c, a, -1) == NULL);
    CHECK_ERROR(c, "times");
    CHECK(eqnn_irreps_concat(c, a, NULL) == NULL && eqnn_irreps_simplify(c, NULL) == NULL);
}

/* ---- rotations ---- */

/* max |a - b| */
static double apart(const double *a, const double *b, size_t n)
{
    double most = 0;
    for (size_t i = 0; i < n; i++) most = fmax(most, fabs(a[i] - b[i]));
    return most;
}

/* C = A B, or A B^T; [n][n] */
static void product(const double *A, const double *B, int n, int transpose, double *C)
{
    for (int i = 0; i < n; i++)
        for (int k = 0; k < n; k++) {
            double s = 0;
            for (int j = 0; j < n; j++)
                s += A[i * n + j] * (transpose ? B[k * n + j] : B[j * n + k]);
            C[i * n + k] = s;
        }
}

static double not_identity(const double *A, int n)
{
    double most = 0;
    for (int i = 0; i < n * n; i++) most = fmax(most, fabs(A[i] - (i % (n + 1) == 0)));
    return most;
}

/* Every description of a rotation gives the matrix back. */
static void round_trips(const double R[9])
{
    double S[9], a, b, g, q[4], axis[3], angle;
    eqnn_angles_rotation(R, &a, &b, &g);
    eqnn_rotation_angles(a, b, g, S);
    CHECK_NEAR(apart(R, S, 9), 0, 2e-15);
    eqnn_quaternion_rotation(R, q);
    eqnn_rotation_quaternion(q, S);
    CHECK_NEAR(apart(R, S, 9), 0, 2e-15);
    CHECK(q[0] >= 0);
    eqnn_axis_rotation(R, axis, &angle);
    eqnn_rotation_axis(axis, angle, S);
    CHECK_NEAR(apart(R, S, 9), 0, 2e-15);
    CHECK(angle >= 0 && angle <= 3.1415926535897936);
    CHECK_NEAR(axis[0] * axis[0] + axis[1] * axis[1] + axis[2] * axis[2], 1, 1e-14);
    for (int i = 0; i < 9; i++) S[i] = -R[i]; /* improper: as of R */
    double again[4], b2, g2, a2;
    eqnn_quaternion_rotation(S, again);
    CHECK_NEAR(apart(q, again, 4), 0, 0);
    eqnn_angles_rotation(S, &a2, &b2, &g2);
    CHECK(a2 == a && b2 == b && g2 == g);
}

TEST(rotations)
{
    eqnn_ctx *c = test_context();
    double R[9], S[9], pi = acos(-1.0);
    static const double small[5] = { 0, 1e-300, 1e-9, 1e-4, 0.5 };
    for (int i = 0; i < 100; i++) {
        eqnn_rotation_random(c, eqnn_format(c, "r%d", i), 0, R);
        product(R, R, 3, 1, S);
        CHECK_NEAR(not_identity(S, 3), 0, 1e-14);
        round_trips(R);
    }
    for (int i = 0; i < 5; i++) { /* poles of the angles, identity, half turns */
        eqnn_rotation_angles(0.3, small[i], 1.1, R);
        round_trips(R);
        eqnn_rotation_angles(0.3, pi - small[i], 1.1, R);
        round_trips(R);
        for (int k = 0; k < 3; k++) {
            double axis[3] = { 0, 0, 0 };
            axis[k] = 1;
            eqnn_rotation_axis(axis, small[i], R);
            round_trips(R);
            eqnn_rotation_axis(axis, pi - small[i], R);
            round_trips(R);
        }
    }
    /* R = Ry(alpha) Rx(beta) Ry(gamma) takes e_y to (sin b sin a, cos b, sin b cos a) */
    eqnn_rotation_angles(0.4, 1.2, -2, R);
    CHECK_NEAR(R[1], sin(1.2) * sin(0.4), 1e-15);
    CHECK_NEAR(R[4], cos(1.2), 1e-15);
    CHECK_NEAR(R[7], sin(1.2) * cos(0.4), 1e-15);
    double e_z[3] = { 0, 0, 2 }, none[3] = { 0, 0, 0 }, nothing[4] = { 0, 0, 0, 0 };
    eqnn_rotation_axis(e_z, pi / 2, R); /* right-handed: x goes to y */
    CHECK_NEAR(R[3], 1, 1e-15);
    eqnn_rotation_axis(none, 1, R);
    CHECK_NEAR(not_identity(R, 3), 0, 0);
    eqnn_rotation_quaternion(nothing, R);
    CHECK_NEAR(not_identity(R, 3), 0, 0);
}

static double determinant(const double R[9])
{
    return R[0] * (R[4] * R[8] - R[5] * R[7]) - R[1] * (R[3] * R[8] - R[5] * R[6]) +
           R[2] * (R[3] * R[7] - R[4] * R[6]);
}

TEST(random_rotations)
{
    eqnn_ctx *c = test_context();
    double mean[9] = { 0 }, R[9], S[9];
    int n = 4000, improper = 0;
    for (int i = 0; i < n; i++) {
        eqnn_rotation_random(c, eqnn_format(c, "r%d", i), 1, R);
        improper += determinant(R) < 0;
        for (int k = 0; k < 9; k++) mean[k] += R[k] / n;
    }
    for (int k = 0; k < 9; k++) CHECK_NEAR(mean[k], 0, 0.05); /* standard error 0.009 */
    CHECK(improper > n / 2 - 200 && improper < n / 2 + 200);
    eqnn_rotation_random(c, "r", 0, R);
    eqnn_rotation_random(c, "r", 0, S);
    CHECK_NEAR(apart(R, S, 9), 0, 0);
}

/* ---- coupling tensors ---- */

static double coupling[25 * 25 * 25], coupling2[25 * 25 * 25];
static double at(const double *C, int l2, int l3, int i, int j, int k)
{
    return C[(i * (2 * l2 + 1) + j) * (2 * l3 + 1) + k];
}

/* Columns are orthogonal: sum over i, j of C_ijk C_ijn = delta_kn / (2 l3 + 1). */
static double not_orthogonal(int l1, int l2, int l3)
{
    double worst = 0;
    eqnn_wigner_3j(l1, l2, l3, coupling);
    for (int k = 0; k <= 2 * l3; k++)
        for (int n = 0; n <= 2 * l3; n++) {
            double s = 0;
            for (int ij = 0; ij < (2 * l1 + 1) * (2 * l2 + 1); ij++)
                s += coupling[ij * (2 * l3 + 1) + k] * coupling[ij * (2 * l3 + 1) + n];
            worst = fmax(worst, fabs(s * (2 * l3 + 1) - (k == n)));
        }
    return worst;
}

TEST(coupling_orthogonal)
{
    double worst = 0;
    for (int l1 = 0; l1 <= 12; l1 += 1 + (l1 > 5))
        for (int l2 = 0; l2 <= 12; l2 += 1 + (l2 > 5))
            for (int l3 = abs(l1 - l2); l3 <= l1 + l2 && l3 <= 12; l3++)
                worst = fmax(worst, not_orthogonal(l1, l2, l3));
    test_note("3j to l = 12, orthogonality: %.1e", worst);
    CHECK_NEAR(worst, 0, 2e-13);
    CHECK(!eqnn_wigner_3j(1, 1, 3, coupling) && !eqnn_wigner_3j(-1, 1, 1, coupling));
    CHECK(!eqnn_wigner_3j(33, 33, 0, coupling));
}

/* Cyclic exchange of the three leaves C alone; an odd one multiplies it by (-1)^(l1+l2+l3). */
TEST(coupling_symmetric)
{
    for (int l1 = 0; l1 <= 5; l1++)
        for (int l2 = 0; l2 <= 5; l2++)
            for (int l3 = abs(l1 - l2); l3 <= l1 + l2 && l3 <= 5; l3++) {
                double sign = (l1 + l2 + l3) % 2 ? -1 : 1, worst = 0;
                eqnn_wigner_3j(l1, l2, l3, coupling);
                for (int swap = 0; swap < 2; swap++) {
                    eqnn_wigner_3j(swap ? l2 : l3, l1, swap ? l3 : l2, coupling2);
                    for (int i = 0; i <= 2 * l1; i++)
                        for (int j = 0; j <= 2 * l2; j++)
                            for (int k = 0; k <= 2 * l3; k++) {
                                double b = swap ? sign * at(coupling2, l1, l3, j, i, k)
                                                : at(coupling2, l1, l2, k, i, j);
                                worst = fmax(worst, fabs(at(coupling, l2, l3, i, j, k) - b));
                            }
                }
                CHECK_NEAR(worst, 0, 1e-15);
            }
}

TEST(coupling_values)
{
    double *C = coupling;
    for (int l = 0; l <= 8; l++) {
        eqnn_wigner_3j(l, l, 0, C);
        for (int i = 0; i < (2 * l + 1) * (2 * l + 1); i++)
            CHECK_NEAR(C[i], i % (2 * l + 2) == 0 ? 1 / sqrt(2.0 * l + 1) : 0, 1e-15);
    }
    eqnn_wigner_3j(1, 1, 1, C); /* the cross product */
    CHECK_NEAR(at(C, 1, 1, 0, 1, 2), 1 / sqrt(6.0), 1e-15);
    CHECK_NEAR(at(C, 1, 1, 1, 0, 2), -1 / sqrt(6.0), 1e-15);
    eqnn_wigner_3j(1, 1, 2, C);
    CHECK_NEAR(at(C, 1, 2, 0, 0, 2), -1 / sqrt(30.0), 1e-15);
    CHECK_NEAR(at(C, 1, 2, 1, 1, 2), 2 / sqrt(30.0), 1e-15);
    CHECK_NEAR(at(C, 1, 2, 2, 2, 4), 1 / sqrt(10.0), 1e-15);
    CHECK_NEAR(at(C, 1, 2, 0, 0, 4), -1 / sqrt(10.0), 1e-15);
    CHECK_NEAR(at(C, 1, 2, 0, 2, 0), 1 / sqrt(10.0), 1e-15);
    CHECK_NEAR(at(C, 1, 2, 0, 1, 1), 1 / sqrt(10.0), 1e-15);
    CHECK_NEAR(at(C, 1, 2, 1, 2, 3), 1 / sqrt(10.0), 1e-15);
    eqnn_wigner_3j(2, 2, 2, C);
    CHECK_NEAR(at(C, 2, 2, 2, 2, 2), sqrt(2.0 / 35), 1e-15);
    static const int nonzero[7][4] = { { 1, 1, 1, 6 },  { 1, 1, 2, 11 }, { 2, 2, 2, 25 },
                                       { 2, 1, 3, 21 }, { 3, 3, 3, 42 }, { 4, 4, 4, 97 },
                                       { 6, 6, 6, 217 } };
    for (int t = 0; t < 7; t++) {
        const int *l = nonzero[t];
        int count = 0, size = (2 * l[0] + 1) * (2 * l[1] + 1) * (2 * l[2] + 1);
        eqnn_wigner_3j(l[0], l[1], l[2], C);
        for (int i = 0; i < size; i++) count += C[i] != 0;
        CHECK(count == l[3]);
    }
}

/* C_lmn = sum C_ijk D_il D_jm D_kn, one axis at a time. */
TEST(coupling_invariant)
{
    eqnn_ctx *c = test_context();
    double R[9], D[15 * 15];
    int l[3];
    for (l[0] = 0; l[0] <= 4; l[0]++)
        for (l[1] = l[0]; l[1] <= 5; l[1]++)
            for (l[2] = l[1] - l[0]; l[2] <= l[0] + l[1] && l[2] <= 7; l[2]++) {
                int d[3] = { 2 * l[0] + 1, 2 * l[1] + 1, 2 * l[2] + 1 }, size = d[0] * d[1] * d[2];
                double *from = coupling, *to = coupling2;
                eqnn_rotation_random(c, "turn", 0, R);
                eqnn_wigner_3j(l[0], l[1], l[2], from);
                for (int axis = 0; axis < 3; axis++) { /* (i,j,k) becomes (j,k,i') */
                    int rest = size / d[axis];
                    eqnn_wigner_D(l[axis], R, D);
                    for (int r = 0; r < rest; r++)
                        for (int n = 0; n < d[axis]; n++) {
                            double s = 0;
                            for (int i = 0; i < d[axis]; i++)
                                s += from[i * rest + r] * D[i * d[axis] + n];
                            to[r * d[axis] + n] = s;
                        }
                    double *swap = from;
                    from = to;
                    to = swap;
                }
                eqnn_wigner_3j(l[0], l[1], l[2], to);
                CHECK_NEAR(apart(from, to, (size_t)size), 0, 1e-14);
            }
}

/* ---- Wigner matrices ---- */

TEST(wigner_matrices)
{
    eqnn_ctx *c = test_context();
    static double A[67 * 67], B[65 * 65], AB[65 * 65], P[65 * 65];
    double R[9], S[9], RS[9], worst = 0;
    for (int l = 0; l <= 32; l += l < 12 ? 1 : 10) {
        int d = 2 * l + 1;
        eqnn_rotation_random(c, eqnn_format(c, "R%d", l), 1, R);
        eqnn_rotation_random(c, eqnn_format(c, "S%d", l), 1, S);
        product(R, S, 3, 0, RS);
        eqnn_wigner_D(l, R, A);
        eqnn_wigner_D(l, S, B);
        eqnn_wigner_D(l, RS, AB);
        product(A, B, d, 0, P);
        worst = fmax(worst, apart(P, AB, (size_t)(d * d)));
        product(A, A, d, 1, P);
        worst = fmax(worst, not_identity(P, d));
        for (int i = 0; i < 9; i++) S[i] = -R[i]; /* -1 acts as the natural parity */
        eqnn_wigner_D(l, S, B);
        for (int i = 0; l % 2 && i < d * d; i++) B[i] *= -1;
        CHECK_NEAR(apart(A, B, (size_t)(d * d)), 0, 1e-13);
        static const double one[9] = { 1, 0, 0, 0, 1, 0, 0, 0, 1 };
        eqnn_wigner_D(l, one, A);
        CHECK_NEAR(not_identity(A, d), 0, 1e-14);
    }
    test_note("D to l = 32, products and orthogonality: %.1e", worst);
    CHECK_NEAR(worst, 0, 1e-13);
    eqnn_wigner_D(1, R, A);
    CHECK_NEAR(apart(A, R, 9), 0, 1e-15);
    eqnn_wigner_D(33, R, A); /* no table: not a number rather than a wrong one */
    CHECK(A[0] != A[0]);
}

/* A rotation about y mixes m and -m only, by the angle m alpha. */
TEST(wigner_about_y)
{
    double R[9], D[13 * 13], a = 0.7;
    eqnn_rotation_angles(a, 0, 0, R);
    eqnn_wigner_D(6, R, D);
    for (int m = 1; m <= 6; m++) {
        int r = 6 - m, t = 6 + m;
        CHECK_NEAR(D[r * 13 + r], cos(m * a), 1e-14);
        CHECK_NEAR(D[r * 13 + t], sin(m * a), 1e-14);
        CHECK_NEAR(D[t * 13 + r], -sin(m * a), 1e-14);
    }
}

/* D(exp(t n)) = exp(t n.X): the derivative at t = 0, and [X_x, X_y] = X_z. */
TEST(generators)
{
    static double X[3 * 25 * 25], D[25 * 25], E[25 * 25], A[25 * 25], B[25 * 25];
    for (int l = 0; l <= 12; l++) {
        int d = 2 * l + 1, n = d * d;
        double h = 1e-5, R[9];
        eqnn_generators(l, X);
        for (int axis = 0; axis < 3; axis++) {
            double e[3] = { 0, 0, 0 };
            e[axis] = 1;
            eqnn_rotation_axis(e, h, R);
            eqnn_wigner_D(l, R, D);
            eqnn_rotation_axis(e, -h, R);
            eqnn_wigner_D(l, R, E);
            for (int i = 0; i < n; i++)
                CHECK_NEAR((D[i] - E[i]) / (2 * h), X[axis * n + i], 1e-7);
        }
        for (int axis = 0; axis < 3; axis++) {
            int b = (axis + 1) % 3, z = (axis + 2) % 3;
            product(X + axis * n, X + b * n, d, 0, A);
            product(X + b * n, X + axis * n, d, 0, B);
            for (int i = 0; i < n; i++) CHECK_NEAR(A[i] - B[i], X[z * n + i], 2e-14);
        }
    }
}

/* ---- harmonics ---- */

static void random_vector(eqnn_ctx *c, int i, double r[3])
{
    eqnn_random(c, eqnn_format(c, "vector %d", i), 1, 3, r);
}

TEST(harmonics_turn)
{
    eqnn_ctx *c = test_context();
    double R[9], r[3], Rr[3], Y[169], Z[169], D[25 * 25], worst = 0;
    for (int i = 0; i < 20; i++) {
        random_vector(c, i, r);
        eqnn_rotation_random(c, eqnn_format(c, "R%d", i), 1, R);
        for (int k = 0; k < 3; k++)
            Rr[k] = R[3 * k] * r[0] + R[3 * k + 1] * r[1] + R[3 * k + 2] * r[2];
        eqnn_solid_harmonics(12, r, Y);
        eqnn_solid_harmonics(12, Rr, Z);
        for (int l = 0; l <= 12; l++) {
            double size = pow(r[0] * r[0] + r[1] * r[1] + r[2] * r[2], 0.5 * l);
            int d = 2 * l + 1;
            eqnn_wigner_D(l, R, D);
            for (int m = 0; m < d; m++) {
                double s = 0;
                for (int n = 0; n < d; n++) s += D[m * d + n] * Y[l * l + n];
                worst = fmax(worst, fabs(s - Z[l * l + m]) / size);
            }
        }
    }
    test_note("Y(R x) = D Y(x) to l = 12: %.1e", worst);
    CHECK_NEAR(worst, 0, 5e-14);
}

TEST(harmonics_values)
{
    static double Y[41 * 41];
    double r[3] = { 0.3, -0.8, 0.5 }, x = r[0], y = r[1], z = r[2], r2 = x * x + y * y + z * z;
    eqnn_solid_harmonics(40, r, Y);
    for (int l = 0; l <= 40; l++) { /* sum rule */
        double s = 0;
        for (int m = 0; m <= 2 * l; m++) s += Y[l * l + m] * Y[l * l + m];
        CHECK_NEAR(s / (2 * l + 1), pow(r2, l), 1e-13);
    }
    CHECK_NEAR(Y[0], 1, 0);
    CHECK_NEAR(Y[1], sqrt(3.0) * x, 1e-15);
    CHECK_NEAR(Y[2], sqrt(3.0) * y, 1e-15);
    CHECK_NEAR(Y[3], sqrt(3.0) * z, 1e-15);
    CHECK_NEAR(Y[4], sqrt(15.0) * x * z, 1e-15);
    CHECK_NEAR(Y[5], sqrt(15.0) * x * y, 1e-15);
    CHECK_NEAR(Y[6], sqrt(5.0) * (y * y - (x * x + z * z) / 2), 1e-15);
    CHECK_NEAR(Y[7], sqrt(15.0) * y * z, 1e-15);
    CHECK_NEAR(Y[8], sqrt(15.0) / 2 * (z * z - x * x), 1e-15);
    CHECK_NEAR(Y[9], sqrt(35.0 / 8) * x * (3 * z * z - x * x), 1e-15);
    CHECK_NEAR(Y[12], sqrt(7.0) / 2 * y * (2 * y * y - 3 * (x * x + z * z)), 1e-15);
    CHECK_NEAR(Y[15], sqrt(35.0 / 8) * z * (z * z - 3 * x * x), 1e-15);
}

static double spherical_error(eqnn_tensor *x, int lmax, const eqnn_harmonics_opts *o, double factor)
{
    eqnn_tensor *y = eqnn_spherical_harmonics(x, lmax, o);
    double Y[81], worst = 0;
    for (int i = 0; i < eqnn_rows(y); i++) {
        double r[3], size = 0;
        for (int k = 0; k < 3; k++) r[k] = eqnn_at(x, i, k), size += r[k] * r[k];
        for (int k = 0; o && o->normalize && k < 3; k++) r[k] /= sqrt(size);
        eqnn_solid_harmonics(lmax, r, Y);
        for (int l = 0; l <= lmax; l++)
            for (int k = l * l; k < (l + 1) * (l + 1); k++) {
                double want = factor * Y[k] / (o && o->kind == EQNN_NORM ? sqrt(2.0 * l + 1) : 1);
                double scale = pow(o && o->normalize ? 1 : sqrt(size), l);
                worst = fmax(worst, fabs(eqnn_at(y, i, k) - want) / fmax(1, scale));
            }
    }
    return worst;
}

static eqnn_tensor *harmonics4(eqnn_tensor *x) { return eqnn_spherical_harmonics(x, 4, NULL); }
static eqnn_tensor *harmonics_unit(eqnn_tensor *x)
{
    eqnn_harmonics_opts o = { 1, EQNN_INTEGRAL };
    return eqnn_spherical_harmonics(x, 3, &o);
}

TEST(harmonics_operation)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *x = eqnn_as(test_normal(c, 40, 3), eqnn_irreps_make(c, "1o"));
    eqnn_harmonics_opts unit = { 1, EQNN_COMPONENT }, norm = { 1, EQNN_NORM };
    eqnn_harmonics_opts integral = { 0, EQNN_INTEGRAL };
    double tol = test_eps(1e-12, 5e-6);
    CHECK_NEAR(spherical_error(x, 8, NULL, 1), 0, tol);
    CHECK_NEAR(spherical_error(x, 8, &unit, 1), 0, tol);
    CHECK_NEAR(spherical_error(x, 8, &norm, 1), 0, tol);
    CHECK_NEAR(spherical_error(x, 8, &integral, 1 / sqrt(4 * acos(-1.0))), 0, tol);
    CHECK_TEXT(eqnn_label_of(eqnn_spherical_harmonics(x, 2, NULL))->name, "1x0e+1x1o+1x2e");
    CHECK_DERIVATIVES(harmonics4, eqnn_slice_rows(x, 0, 3), 2);
    CHECK_DERIVATIVES(harmonics_unit, eqnn_slice_rows(x, 0, 3), 2);
}

/* ---- labels that turn ---- */

static const char *const everything = "2x0e+1x0o+0x1o+2x1o+1x1e+3x2e+1x2o+1x3o";

/* D of the label is what rotate does; it is a representation; improper elements act by parity. */
static eqnn_tensor *turned_by(eqnn_tensor *const *x, int n, void *user)
{
    (void)n;
    return eqnn_square(eqnn_as(eqnn_rotate(x[0], (const double *)user), NULL));
}

/* Rotations are recorded, and lead to the conventions of others: harmonics about z. */
TEST(rotations_of_features)
{
    eqnn_ctx *c = test_context();
    double R[9], r[3], Y[9], about_z[9] = { 0, 1, 0, 0, 0, 1, 1, 0, 0 };
    eqnn_rotation_random(c, "R", 1, R);
    const eqnn_irreps *mixed = eqnn_irreps_make(c, "2x0o+1x1e+2x2e+2x1o+4x0e");
    eqnn_tensor *x = eqnn_as(test_normal(c, 3, 25), mixed);
    CHECK(eqnn_check_derivatives(turned_by, &x, 1, R, 2, 0) < test_eps(1e-5, 2e-2));
    eqnn_random(c, "r", 1, 3, r);
    eqnn_solid_harmonics(2, r, Y);
    x = eqnn_as(eqnn_from_double(c, 1, 9, Y), eqnn_irreps_make(c, "1x0e+1x1o+1x2e"));
    x = eqnn_rotate(x, about_z);
    double a = sqrt(3.0), b = sqrt(15.0), square = r[0] * r[0] + r[1] * r[1] + r[2] * r[2];
    double table[9] = { 1, a * r[1], a * r[2], a * r[0], b * r[0] * r[1], b * r[1] * r[2],
                        sqrt(5.0) / 2 * (3 * r[2] * r[2] - square), b * r[0] * r[2],
                        b / 2 * (r[0] * r[0] - r[1] * r[1]) };
    for (int i = 0; i < 9; i++) CHECK_NEAR(eqnn_at(x, 0, i), table[i], test_eps(1e-14, 1e-5));
}

TEST(labels_turn)
{
    eqnn_ctx *c = test_context();
    const eqnn_irreps *a = eqnn_irreps_make(c, everything);
    int n = a->cols;
    size_t bytes = (size_t)n * (size_t)n * sizeof(double);
    double *D = (double *)malloc(bytes), *E = (double *)malloc(bytes), *F = (double *)malloc(bytes);
    double R[9], S[9], RS[9];
    eqnn_rotation_random(c, "R", 0, R);
    eqnn_rotation_random(c, "S", 0, S);
    for (int i = 0; i < 9; i++) S[i] = -S[i];
    product(R, S, 3, 0, RS);
    eqnn_irreps_D(a, R, D);
    eqnn_irreps_D(a, S, E);
    product(D, E, n, 0, F);
    eqnn_irreps_D(a, RS, D);
    CHECK_NEAR(apart(D, F, (size_t)(n * n)), 0, 1e-14);
    product(D, D, n, 1, F);
    CHECK_NEAR(not_identity(F, n), 0, 1e-14);

    eqnn_tensor *x = eqnn_as(test_normal(c, 5, n), a), *y = eqnn_rotate(x, RS);
    CHECK(eqnn_label_of(y) == a);
    for (int r = 0; r < 5; r++)
        for (int i = 0; i < n; i++) {
            double s = 0;
            for (int k = 0; k < n; k++) s += D[i * n + k] * eqnn_at(x, r, k);
            CHECK_NEAR(eqnn_at(y, r, i), s, test_eps(1e-14, 2e-6));
        }
    static const double minus[9] = { -1, 0, 0, 0, -1, 0, 0, 0, -1 };
    eqnn_tensor *z = eqnn_rotate(x, minus);
    for (int i = 0; i < a->blocks; i++) {
        const eqnn_block *b = &a->block[i];
        for (int k = b->start; k < b->start + b->copies * b->type->dim; k++)
            CHECK_NEAR(eqnn_at(z, 0, k), b->type->p * eqnn_at(x, 0, k), test_eps(1e-14, 1e-6));
    }
    eqnn_tensor *plain = eqnn_rotate(test_normal(c, 2, 3), R); /* no label: invariant */
    CHECK(plain && !eqnn_label_of(plain));
    eqnn_rotate(eqnn_as(test_normal(c, 1, 81), eqnn_irreps_make(c, "1x40e")), R);
    CHECK_ERROR(c, "40e");
    free(D), free(E), free(F);
}

/* x |x| of vectors is equivariant; x + 1 is not. */
static eqnn_tensor *good_layer(eqnn_tensor *const *x, int n, void *user)
{
    (void)n, (void)user;
    eqnn_tensor *y = eqnn_scale(x[0], 2), *h = eqnn_spherical_harmonics(y, 3, NULL);
    return eqnn_concat(h, y);
}

static eqnn_tensor *bad_layer(eqnn_tensor *const *x, int n, void *user)
{
    (void)n, (void)user;
    eqnn_tensor *y = eqnn_shift(eqnn_as(x[0], NULL), 1);
    return eqnn_as(y, eqnn_label_of(x[0]));
}

TEST(equivariance_checker)
{
    eqnn_ctx *c = test_context();
    eqnn_tensor *x = eqnn_as(test_normal(c, 10, 3), eqnn_irreps_make(c, "1o"));
    double absolute, error = eqnn_check_equivariance(good_layer, &x, 1, NULL, 8, &absolute);
    test_note("harmonics: relative %.1e, absolute %.1e", error, absolute);
    CHECK_NEAR(error, 0, test_eps(1e-14, 2e-6));
    CHECK(absolute >= error);
    CHECK(eqnn_check_equivariance(bad_layer, &x, 1, NULL, 4, NULL) > 0.1);
    eqnn_tensor *polar = eqnn_as(x, eqnn_irreps_make(c, "1e")); /* the wrong parity is seen, too */
    CHECK_OK(c);
    CHECK(eqnn_check_equivariance(bad_layer, &polar, 1, NULL, 4, NULL) > 0.1);
    CHECK(!(eqnn_check_equivariance(good_layer, &x, 0, NULL, 4, NULL) == 0));
}

TEST_MAIN
