/* data.c - eqnn_data.h: files, the chain, tasks, systems, batches, scores, options, logs, plots,
            runs */
#define _XOPEN_SOURCE 700 /* terminals */
#include "test.h"
#include "../eqnn_data.h"
#include <ctype.h>
#include <fcntl.h>
#include <locale.h>
#include <signal.h>
#include <unistd.h>

/* ---- files ---- */

/* An npy file in memory: version 1 header text, then the numbers. */
static size_t npy(unsigned char *out, const char *header, const void *data, size_t size)
{
    size_t n = strlen(header);
    memcpy(out, "\x93NUMPY\1\0", 8);
    out[8] = (unsigned char)(n & 255);
    out[9] = (unsigned char)(n >> 8);
    memcpy(out + 10, header, n);
    memcpy(out + 10 + n, data, size);
    return 10 + n + size;
}

static eqnn_npz *parse(eqnn_ctx *c, const char *header, const void *data, size_t size)
{
    unsigned char bytes[1024];
    return eqnn_npz_parse(c, bytes, npy(bytes, header, data, size));
}

TEST(npy_types)
{
    eqnn_ctx *c = test_context();
    static const struct {
        const char *dtype;
        unsigned char bytes[8];
        size_t size;
        double value;
    } t[] = {
        { "<f8", { 0, 0, 0, 0, 0, 0, 0xf8, 0x3f }, 8, 1.5 },
        { ">f8", { 0x3f, 0xf8 }, 8, 1.5 },
        { "<f4", { 0, 0, 0xc0, 0x3f }, 4, 1.5 },
        { ">f4", { 0x3f, 0xc0 }, 4, 1.5 },
        { "<f2", { 0x00, 0x3e }, 2, 1.5 },
        { "<f2", { 1, 0 }, 2, 5.9604644775390625e-8 },
        { ">f2", { 0xc0, 0 }, 2, -2 },
        { "<i1", { 0x80 }, 1, -128 },
        { "<i2", { 0xfe, 0xff }, 2, -2 },
        { ">i2", { 0xff, 0xfe }, 2, -2 },
        { "<i4", { 0, 0, 0, 0x80 }, 4, -2147483648.0 },
        { "<i8", { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff }, 8, -1 },
        { ">i8", { 0x80 }, 8, -9223372036854775808.0 },
        { "|u1", { 200 }, 1, 200 },
        { "<u2", { 0xff, 0xff }, 2, 65535 },
        { ">u4", { 1, 0, 0, 0 }, 4, 16777216 },
        { "<u8", { 0, 0, 0, 0, 0, 0, 0, 0x80 }, 8, 9223372036854775808.0 },
        { "|b1", { 1 }, 1, 1 },
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        char header[128];
        snprintf(header, sizeof header,
                 "{'descr': '%s', 'fortran_order': False, 'shape': (1,), }\n", t[i].dtype);
        eqnn_npz *z = parse(c, header, t[i].bytes, t[i].size);
        const eqnn_array *a = eqnn_npz_need(z, "arr", 1);
        CHECK(a && a->count == 1 && a->values[0] == t[i].value);
        CHECK_TEXT(a ? a->dtype : NULL, t[i].dtype);
        eqnn_npz_close(z);
    }
}

TEST(npy_orders)
{
    eqnn_ctx *c = test_context();
    const unsigned char data[6] = { 0, 1, 2, 3, 4, 5 };
    static const double expected[6] = { 0, 2, 4, 1, 3, 5 };
    eqnn_npz *z = parse(c, "{'shape': (2, 3), 'fortran_order': True, 'descr': \"|u1\"}", data, 6);
    const eqnn_array *a = eqnn_npz_need(z, "arr", 2);
    for (int i = 0; a && i < 6; i++) CHECK(a->values[i] == expected[i]);
    CHECK(!eqnn_npz_need(z, "arr", 3));
    CHECK_ERROR(c, "2 dimensions");
    CHECK(!eqnn_npz_need(z, "b", 3));
    CHECK_ERROR(c, "no array 'b'");
    eqnn_npz_close(z);
    z = parse(c, "{'descr': '<U5', 'fortran_order': False, 'shape': (1,), }", data, 6);
    CHECK(eqnn_npz_count(z) == 1 && !eqnn_npz_at(z, 0)->values && !eqnn_npz_need(z, "arr", 1));
    CHECK_ERROR(c, "'<U5', which is not read");
    eqnn_npz_close(z);
}

TEST(npy_malformed)
{
    eqnn_ctx *c = test_context();
    static const char *const bad[][2] = {
        { "{'descr': '|u1', 'fortran_order': False, 'shape': (7,), }", "cut off" },
        { "{'descr': '|u1', 'fortran_order': False, 'shape': (4294967296,4294967296), }",
          "cut off" },
        { "{'descr': '|u1', 'fortran_order': False, 'shape': (99999999999999999999,), }",
          "absurdly" },
        { "{'descr': '|u1', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,1,1), }",
          "8 dimensions" },
        { "{'descr': '|u1', 'fortran_order': False, 'shape': (-1,), }", "not made of numbers" },
        { "{'descr': '|u1', 'fortran_order': False, 'shape': (1", "comma" },
        { "{'descr': '|u1', 'fortran_order': Maybe, 'shape': (1,), }", "boolean" },
        { "{'descr': '|u1', 'fortran_order': False, }", "lacks descr" },
        { "{'descr': '|u1', 'surprise': 1}", "unknown key" },
        { "{'descr': '|u1", "dtype" },
        { "[1, 2]", "dictionary" },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        CHECK(!parse(c, bad[i][0], "abcdef", 6));
        CHECK_ERROR(c, bad[i][1]);
    }
    CHECK(!eqnn_npz_parse(c, "", 0));
    CHECK_ERROR(c, "too short");
    CHECK(!eqnn_npz_open(c, "/nowhere/at/all.npz"));
    CHECK_ERROR(c, "cannot open '/nowhere/at/all.npz'");
}

TEST(npz_round_trip)
{
    eqnn_ctx *c = test_context();
    double v[6] = { 1, -2, 3.5, 1e300, -0.0, 6 }, whole[4] = { -5, 127, 0, -128 };
    eqnn_array w[3], one;
    memset(w, 0, sizeof w);
    w[0].name = "a"; w[0].dims = 2; w[0].shape[0] = 2; w[0].shape[1] = 3; w[0].values = v;
    w[1].name = "i"; w[1].dims = 1; w[1].shape[0] = 4; w[1].values = whole; w[1].dtype = "|i1";
    w[2].name = "none"; w[2].dims = 2; w[2].shape[1] = 3;
    one = w[1];
    CHECK(eqnn_npz_save(c, "test_data.npz", w, 3));
    eqnn_npz *z = eqnn_npz_open(c, "test_data.npz");
    const eqnn_array *a = eqnn_npz_need(z, "a", 2), *i = eqnn_npz_need(z, "i", 1);
    CHECK(eqnn_npz_count(z) == 3 && a && memcmp(a->values, v, sizeof v) == 0);
    CHECK(i && memcmp(i->values, whole, sizeof whole) == 0);
    CHECK(eqnn_npz_need(z, "none", 2) && eqnn_npz_find(z, "none")->count == 0 &&
          !eqnn_npz_find(z, "b"));
    eqnn_npz_close(z);
    whole[0] = 200;
    CHECK(!eqnn_npy_save(c, "test_data.npy", &one));
    CHECK_ERROR(c, "200 is no number of dtype '|i1'");
    one.dtype = "<f4";
    whole[0] = 1e39;
    CHECK(!eqnn_npy_save(c, "test_data.npy", &one));
    CHECK_ERROR(c, "1e+39 is no number of dtype '<f4'");
    whole[0] = 200;
    CHECK(eqnn_npy_save(c, "test_data.npy", &one));
    z = eqnn_npz_open(c, "test_data.npy");
    CHECK(eqnn_npz_need(z, "arr", 1) && eqnn_npz_find(z, "arr")->values[0] == 200);
    eqnn_npz_close(z);
    remove("test_data.npy");
    w[2].name = "a", whole[0] = 0;
    CHECK(!eqnn_npz_save(c, "test_data.npz", w, 3));
    CHECK_ERROR(c, "npz_save: arrays 0 and 2 are both called 'a'");
}

/* The ends of every integer type, what lies just outside, and no fractions. */
TEST(npz_integers)
{
    eqnn_ctx *c = test_context();
    static const struct { const char *dtype; double low, high; } t[] = {
        { "|u1", 0, 255 },
        { "|i1", -128, 127 },
        { "<u2", 0, 65535 },
        { "<i2", -32768, 32767 },
        { "<u4", 0, 4294967295.0 },
        { "<i4", -2147483648.0, 2147483647.0 },
        { "<u8", 0, 18446744073709549568.0 },
        { "<i8", -9223372036854775808.0, 9223372036854774784.0 }
    };
    for (int k = 0; k < 8; k++) {
        double v[19] = { t[k].low, t[k].high, 1, 2, 3 }; /* more bytes than CRC-32 takes at once */
        double bad[4] = { t[k].high + 2048, t[k].low < 0 ? 2 * t[k].low : -1, 1.5, (double)NAN };
        eqnn_array w = { .name = "x", .dtype = t[k].dtype, .dims = 1, .shape = { 19 },
                         .values = v };
        CHECK(eqnn_npz_save(c, "test_data.npz", &w, 1));
        eqnn_npz *z = eqnn_npz_open(c, "test_data.npz");
        CHECK(eqnn_npz_need(z, "x", 1) && !memcmp(eqnn_npz_at(z, 0)->values, v, sizeof v));
        eqnn_npz_close(z);
        for (int b = 0; b < 4; b++) {
            v[18] = bad[b];
            CHECK(!eqnn_npz_save(c, "test_data.npz", &w, 1));
            CHECK_ERROR(c, "is no number of dtype");
        }
    }
    remove("test_data.npz");
}

/* Other files among the arrays are passed over; what is called .npy must be an array. */
TEST(npz_with_other_files)
{
    eqnn_ctx *c = test_context();
    static unsigned char bytes[4096];
    double v[4] = { 1, 2, 3, 4 };
    eqnn_array w[2];
    memset(w, 0, sizeof w);
    w[0].name = "other"; w[1].name = "x";
    for (int i = 0; i < 2; i++) w[i].dims = 1, w[i].shape[0] = 4, w[i].values = v;
    CHECK(eqnn_npz_save(c, "test_data.npz", w, 2));
    FILE *f = fopen("test_data.npz", "rb");
    size_t size = f ? fread(bytes, 1, sizeof bytes, f) : 0;
    if (f) fclose(f);
    remove("test_data.npz");
    bytes[30 + 9] = 'A'; /* behind its header and name: no array any more, and its checksum wrong */
    CHECK(!eqnn_npz_parse(c, bytes, size));
    CHECK_ERROR(c, "npz: entry 'other.npy': its checksum is wrong");
    for (size_t i = 0; i + 9 < size; i++) /* in its header and in the directory */
        if (!memcmp(bytes + i, "other.npy", 9)) memcpy(bytes + i, "other.txt", 9);
    eqnn_npz *z = eqnn_npz_parse(c, bytes, size);
    const eqnn_array *x = eqnn_npz_need(z, "x", 1);
    CHECK(eqnn_npz_count(z) == 1 && x && !memcmp(x->values, v, sizeof v));
    CHECK(!eqnn_npz_need(z, "other.txt", 1));
    CHECK_ERROR(c, "there is no array 'other.txt' among the 1 in the file");
    eqnn_npz_close(z);
}

/* Every byte of an archive that is changed, and every length it is cut to, gives the same numbers
   or an error, never a crash. */
TEST(npz_damaged)
{
    eqnn_ctx *c = test_context();
    static unsigned char bytes[4096], copy[4096];
    double v[4] = { 1, 2, 3, 4 };
    eqnn_array w;
    memset(&w, 0, sizeof w);
    w.name = "x"; w.dims = 1; w.shape[0] = 4; w.values = v;
    CHECK(eqnn_npz_save(c, "test_data.npz", &w, 1));
    FILE *f = fopen("test_data.npz", "rb");
    size_t size = f ? fread(bytes, 1, sizeof bytes, f) : 0;
    if (f) fclose(f);
    remove("test_data.npz");
    for (size_t n = 0; n < size; n++) {
        CHECK(!eqnn_npz_parse(c, bytes, n));
        CHECK_ERROR(c, "npz");
    }
    int refused = 0;
    for (size_t i = 0; i < size; i++) {
        memcpy(copy, bytes, size);
        copy[i] ^= 0x41;
        eqnn_npz *z = eqnn_npz_parse(c, copy, size);
        const eqnn_array *a = eqnn_npz_at(z, 0);
        CHECK(!a || (a->count == 4 && a->values && memcmp(a->values, v, sizeof v) == 0));
        refused += !z;
        eqnn_clear(c);
        eqnn_npz_close(z);
    }
    CHECK(refused > 100);
}

/* ---- generators ---- */

TEST(chain_force)
{
    eqnn_ctx *c = test_context();
    eqnn_chain_opts o;
    double pos[3 * 36], force[36], worst = 0;
    memset(&o, 0, sizeof o);
    o.frames = 3;
    o.spatial = 1;
    CHECK(eqnn_chain(c, &o, pos, NULL));
    eqnn_chain_force(&o, pos, force);
    for (int i = 0; i < 36; i++) {
        double h = 1e-6, x = pos[i], up, down;
        pos[i] = x + h;
        up = eqnn_chain_energy(&o, pos, NULL);
        pos[i] = x - h;
        down = eqnn_chain_energy(&o, pos, NULL);
        pos[i] = x;
        worst = fmax(worst, fabs(force[i] + (up - down) / (2 * h)));
    }
    CHECK(worst < 1e-11);
}

TEST(chain_energy)
{
    eqnn_ctx *c = test_context();
    static double pos[500 * 36], vel[500 * 36];
    eqnn_chain_opts o;
    memset(&o, 0, sizeof o);
    o.frames = 500;
    o.spatial = 1;
    o.substeps = 32;
    o.centred = 1;
    CHECK(eqnn_chain(c, &o, pos, vel));
    double first = eqnn_chain_energy(&o, pos, vel), worst = 0;
    for (int t = 0; t < 500; t++)
        worst = fmax(worst, fabs(eqnn_chain_energy(&o, pos + 36 * t, vel + 36 * t) / first - 1));
    test_note("energy of the chain: relative error %.2e", worst);
    CHECK(worst < 1e-3);
    double squares = 0, sum = 0;
    for (int i = 0; i < 36; i++) squares += vel[i] * vel[i];
    for (int i = 0; i < 12; i++) sum += vel[499 * 36 + 3 * i];
    CHECK_NEAR(squares / 33, 3.8e-5, 1e-15);
    CHECK_NEAR(sum, 0, 1e-12);
}

/* A step leads from one recorded frame to the next, and back when the velocities are reversed. */
TEST(chain_step)
{
    eqnn_ctx *c = test_context();
    double pos[2][36], vel[2][36], x[36], v[36], force[36], next[36];
    eqnn_chain_opts o;
    memset(&o, 0, sizeof o);
    o.frames = 2;
    o.spatial = o.centred = 1;
    CHECK(eqnn_chain(c, &o, pos[0], vel[0]));
    memcpy(x, pos[0], sizeof x);
    memcpy(v, vel[0], sizeof v);
    eqnn_chain_force(&o, x, force);
    eqnn_chain_step(&o, x, v, force);
    eqnn_chain_force(&o, x, next);
    for (int i = 0; i < 36; i++) {
        CHECK_NEAR(x[i], pos[1][i], 1e-15);
        CHECK_NEAR(v[i], vel[1][i], 1e-15);
        CHECK_NEAR(force[i], next[i], 1e-15);
        v[i] = -v[i];
    }
    eqnn_chain_step(&o, x, v, force);
    for (int i = 0; i < 36; i++) {
        CHECK_NEAR(x[i], pos[0][i], 1e-12);
        CHECK_NEAR(v[i], -vel[0][i], 1e-12);
    }
}

TEST(chain_repeats)
{
    eqnn_ctx *c = test_context(), *d = test_context();
    static double a[20 * 36], b[20 * 36];
    eqnn_chain_opts o;
    memset(&o, 0, sizeof o);
    o.frames = 20;
    eqnn_reset(c); /* the tick does not matter */
    CHECK(eqnn_chain(c, &o, a, NULL) && eqnn_chain(d, &o, b, NULL));
    CHECK(memcmp(a, b, sizeof a) == 0);
    double drift = 0, flat = 0;
    for (int i = 0; i < 12; i++) {
        drift += (a[19 * 36 + 3 * i] - a[3 * i]) / 12;
        flat = fmax(flat, fabs(a[19 * 36 + 3 * i + 2]));
    }
    CHECK_NEAR(drift, 19 * 1.4e-3, 1e-10);
    CHECK(flat == 0);
    o.seed = 77;
    CHECK(eqnn_chain(c, &o, a, NULL) && memcmp(a, b, sizeof a) != 0);
    o.beads = -1;
    CHECK(!eqnn_chain(c, &o, a, NULL));
    CHECK_ERROR(c, "-1 beads");
    o.beads = 1;
    CHECK(eqnn_chain(c, &o, a, NULL)); /* one free particle */
}

/* A rotation, or a boost, in the plane of coordinates i and j. */
static void turn(double *x, int i, int j, double angle, int boost)
{
    double c = boost ? cosh(angle) : cos(angle), s = boost ? sinh(angle) : sin(angle);
    double a = x[i], b = x[j];
    x[i] = c * a + (boost ? s : -s) * b;
    x[j] = s * a + c * b;
}

TEST(tasks)
{
    eqnn_ctx *c = test_context();
    static const char *const names[3] = { "inertia", "o5", "particle" };
    static double x[4000 * 20], y[4000 * 9], again[20];
    for (int k = 0; k < 3; k++) {
        const eqnn_task *t = eqnn_task_find(c, names[k]);
        double scale[20], mean[9], deviation[9], moved[9];
        int d = k == 0 ? 3 : t->in == 10 ? 5 : 4, first = k == 0 ? 5 : 0;
        eqnn_task_draw(t, 7, 0, 4000, x, y);
        eqnn_task_draw(t, 7, 3999, 1, again, NULL); /* an example is a function of its number */
        CHECK(!memcmp(again, x + 3999 * t->in, (size_t)t->in * sizeof(double)));
        for (int v = first; v < t->in; v += d)
            for (int i = 0; i + 1 < d; i++) turn(again + v, i, i + 1, 0.3 + i, k == 2 && i == 0);
        eqnn_task_targets(t, 1, again, moved);
        double *old = y + 3999 * t->out; /* a matrix turns as R y R^T: rows, then columns */
        for (int s = 0; k == 0 && s < 3; s++)
            for (int i = 0; i + 1 < d; i++) turn(old + 3 * s, i, i + 1, 0.3 + i, 0);
        for (int s = 0; k == 0 && s < 3; s++)
            for (int i = 0; i + 1 < d; i++) turn(old, 3 * i + s, 3 * i + 3 + s, 0.3 + i, 0);
        for (int i = 0; i < t->out; i++) CHECK_NEAR(moved[i], old[i], 1e-11);
        eqnn_task_scales(t, 4000, x, y, scale, mean, deviation);
        for (int i = 0; i < t->in; i++) CHECK_NEAR(scale[i], k == 2 ? 0.25 : 1, 0.05);
        for (int i = 0; k == 0 && i < 9; i++) CHECK(mean[i] == 0 && deviation[i] == 1);
        test_note("%s: y of example 0 %.4f, mean %.3f, variance %.3f", names[k], y[0], mean[0],
                  deviation[0] * deviation[0]);
        if (k) CHECK_NEAR(mean[0], k == 1 ? -5.69 : 0.25, 0.1);
        if (k) CHECK_NEAR(deviation[0] * deviation[0], k == 1 ? 37.9 : 0.726, 0.25);
    }
    CHECK(!eqnn_task_find(c, "outertia"));
    CHECK_ERROR(c, "there is no task 'outertia'");
    double zero[10] = { 0 }, one[1];
    eqnn_task_targets(eqnn_task_find(c, "o5"), 1, zero, one);
    CHECK(one[0] == 0);
    eqnn_task_scales(eqnn_task_find(c, "o5"), 0, NULL, NULL, x, x + 10, x + 11);
    CHECK(x[0] == 1 && x[10] == 0 && x[11] == 1);
}

TEST(cubes)
{
    eqnn_ctx *c = test_context();
    static const double h[2][36] = { { 0, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0,
                                       0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0 },
                                     { 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0,
                                       0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0 } };
    double x[36], y[36], big[288];
    int handed[2] = { 0, 0 };
    eqnn_cube_state(1, 0, x);
    for (int i = 0; i < 36; i++) CHECK(x[i] == (i % 7 == 0));
    eqnn_cube_state(8, 1, big);
    CHECK(big[40] == 1 && big[0] == 0 && big[48 + 24] == 1 && big[5 * 48] == 1);
    for (int k = 0; k < 200; k++) { /* colours of three faces at a corner keep their handedness */
        eqnn_cube_state(1, k % 2, x);
        CHECK(eqnn_scramble(c, 1, (uint64_t)k, 30, h[0], 2, 6, 6, x));
        int at[3], sign = 1;
        for (int f = 0; f < 3; f++)
            for (int colour = 0; colour < 6; colour++)
                if (x[6 * colour + f] > 0) at[f] = colour;
        static const int axis[6] = { 2, 0, 1, 0, 1, 2 }, side[6] = { 1, 1, 1, -1, -1, -1 };
        int p = axis[at[0]], q = axis[at[1]];
        for (int f = 0; f < 3; f++) sign *= side[at[f]];
        sign *= (q - p + 3) % 3 == 1 ? 1 : -1;
        handed[k % 2] += sign;
    }
    test_note("handedness: %d %d", handed[0], handed[1]);
    CHECK(handed[0] * handed[1] == -100 * 100);
    eqnn_cube_state(1, 0, x);
    eqnn_cube_state(1, 0, y);
    CHECK(eqnn_scramble(c, 1, 5, 30, h[0], 2, 6, 6, x));
    CHECK(eqnn_scramble(c, 1, 5, 30, h[0], 2, 6, 6, y) && !memcmp(x, y, sizeof x));
    CHECK(!eqnn_scramble(c, 1, 5, 30, h[0], 0, 6, 6, x));
    CHECK_ERROR(c, "0 generators");
}

TEST(systems)
{
    eqnn_ctx *c = test_context();
    const eqnn_system *s = eqnn_system_find(c, "springs");
    static double z[2][3 * 301 * 12];
    double times[301], z0[36], dz[12], worst = 0;
    for (int k = 0; k < 3; k++) s->start(s, 5, (uint64_t)k, z0 + 12 * k);
    s->field(s, z0, dz); /* (dH/dp, -dH/dx) by differences */
    for (int i = 0; i < 12; i++) {
        double h = 1e-6, x = z0[i], up, down;
        z0[i] = x + h, up = s->energy(s, z0);
        z0[i] = x - h, down = s->energy(s, z0);
        z0[i] = x;
        worst = fmax(worst, fabs((up - down) / (2 * h) - (i < 6 ? -dz[i + 6] : dz[i - 6])));
    }
    CHECK(worst < 1e-9);
    for (int i = 0; i < 301; i++) times[i] = 0.1 * i;
    CHECK(eqnn_system_run(c, s, 0, 3, z0, times, 301, z[0]));
    for (int k = 0; k < 36; k++) z0[k] = z[0][(k / 12 * 301 + 300) * 12 + k % 12];
    for (int i = 0; i < 301; i++) times[i] = 30 - 0.1 * i; /* and back */
    CHECK(eqnn_system_run(c, s, 0, 3, z0, times, 301, z[1]));
    double back = 0, energy = 0, spin = 0;
    for (int k = 0; k < 3; k++)
        for (int i = 0; i < 301; i++) {
            const double *a = z[0] + (k * 301 + i) * 12, *b = z[1] + (k * 301 + 300 - i) * 12;
            const double *first = z[0] + k * 301 * 12;
            for (int j = 0; j < 12; j++) back = fmax(back, fabs(a[j] - b[j]));
            energy = fmax(energy, fabs(s->energy(s, a) - s->energy(s, first)));
            spin = fmax(spin, fabs(s->spin(s, a) - s->spin(s, first)));
        }
    test_note("springs in 30 s: there and back %.1e, energy %.1e, spin %.1e", back, energy, spin);
    CHECK(back < 1e-9 && energy < 1e-10 && spin < 1e-11);
    CHECK(eqnn_system_run(c, s, 1e-4, 3, z0, times, 301, z[0])); /* and no better than asked for */
    worst = 0;
    for (int i = 0; i < 3 * 301 * 12; i++) worst = fmax(worst, fabs(z[0][i] - z[1][i]));
    CHECK(worst > 1e-8 && worst < 0.1);
}

TEST(system_edges)
{
    eqnn_ctx *c = test_context();
    const eqnn_system *o = eqnn_system_find(c, "oscillator"), *s = eqnn_system_find(c, "springs");
    double z0[2], times[3] = { 1, 1, 41 }, z[6], bad[12] = { NAN }, chunk[2][3 * 5 * 12];
    o->start(o, 3, 4, z0);
    CHECK(eqnn_system_run(c, o, 0, 1, z0, times, 3, z) && z[2] == z0[0]);
    CHECK_NEAR(z[4], z0[0] * cos(40) + z0[1] * sin(40), 1e-10); /* one long way: many steps */
    CHECK_NEAR(z[5], z0[1] * cos(40) - z0[0] * sin(40), 1e-10);
    CHECK_NEAR(o->energy(o, z + 4), o->energy(o, z0), 1e-10);
    CHECK(eqnn_system_run(c, o, 0, 0, z0, times, 3, z));
    CHECK(!eqnn_system_run(c, s, 0, 1, bad, times, 3, chunk[0]));
    CHECK_ERROR(c, "system 0; is its start finite?");
    CHECK(!eqnn_system_run(c, o, 0, 1, z0, times, 0, z));
    CHECK_ERROR(c, "at 0 times");
    CHECK(!eqnn_system_find(c, "pendulum"));
    CHECK_ERROR(c, "there are springs and oscillator");
    CHECK(eqnn_system_chunks(c, s, NULL, 0, 3, chunk[0]));
    CHECK(eqnn_system_chunks(c, s, NULL, 2, 1, chunk[1])); /* chunks do not know of each other */
    CHECK(!memcmp(chunk[0] + 2 * 60, chunk[1], 60 * sizeof(double)));
    double dz[12], h = 0.2; /* each is a piece of a trajectory: Simpson's rule over two steps */
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 12; j++) {
            double sum = 0, w[3] = { 1, 4, 1 };
            for (int k = 0; k < 3; k++) {
                s->field(s, chunk[0] + (5 * i + k) * 12, dz);
                sum += h / 3 * w[k] * dz[j];
            }
            CHECK(fabs(chunk[0][(5 * i + 2) * 12 + j] - chunk[0][5 * i * 12 + j] - sum) < 5e-3);
        }
}

/* ---- batches ---- */

TEST(splits)
{
    eqnn_ctx *c = test_context();
    int items[2047], first[3], seen[2047] = { 0 };
    double fractions[2] = { 0.8, 0.2 };
    CHECK(eqnn_split(c, 2047, fractions, 2, 0, items, first));
    CHECK(first[0] == 0 && first[1] == 1637 && first[2] == 2047 && items[1637] == 1637);
    CHECK(eqnn_split(c, 2047, fractions, 2, 1, items, first));
    for (int i = 0; i < 2047; i++) seen[items[i]]++;
    for (int i = 0; i < 2047; i++) CHECK(seen[i] == 1);
    fractions[0] = 1.2;
    CHECK(!eqnn_split(c, 10, fractions, 2, 0, items, first));
    CHECK_ERROR(c, "sum 1.4");
    for (int k = 0; k < 2; k++) {
        fractions[k] = k ? NAN : -0.1;
        CHECK(!eqnn_split(c, 10, fractions, 2, 0, items, first));
        CHECK_ERROR(c, k ? "split: fraction 2 of 2 is " : "split: fraction 1 of 2 is -0.1");
        fractions[k] = 0.2;
    }
    CHECK(eqnn_split(c, 0, fractions + 1, 1, 1, items, first) && first[1] == 0);
    CHECK(!eqnn_split(c, -1, fractions, 2, 0, items, first));
    CHECK_ERROR(c, "split: -1 examples into 2 parts: needs at least 0 and at least 1");
    CHECK(!eqnn_split(c, 10, NULL, 2, 0, items, first));
    CHECK_ERROR(c, "split: 10 examples into 2 parts: fractions is NULL");
    CHECK(!eqnn_split(c, 10, fractions, 2, 0, NULL, first));
    CHECK_ERROR(c, "split: 10 examples into 2 parts: items is NULL");
}

/* NULL where something is needed is an answer or a sentence, and never read. */
/* What is negative or no number is neither the default nor what was meant. */
TEST(bad_options_of_data)
{
    static double pos[9 * 12 * 3], z[40];
    static int present[40], counts[4];
    eqnn_ctx *c = test_context();
    const eqnn_chain_opts chain[] = { { .temperature = -1 }, { .k = -1 }, { .r0 = -1 },
                                      { .ka = NAN }, { .theta0 = INFINITY }, { .sigma = -1 },
                                      { .epsilon = NAN } };
    for (int i = 0; i < 7; i++) {
        eqnn_chain_opts o = chain[i];
        o.frames = 2;
        CHECK(!eqnn_chain(c, &o, pos, NULL));
        CHECK_ERROR(c, "it must be positive, or 0 for the default");
    }
    const eqnn_chain_opts hot = { .frames = 9, .settle = -1, .temperature = 1e300 };
    CHECK(!eqnn_chain(c, &hot, pos, NULL));
    CHECK_ERROR(c, "the motion blew up");
    const eqnn_constellation_opts stars[] = { { .rotation = NAN }, { .noise = NAN },
                                              { .upscale = INFINITY } };
    for (int i = 0; i < 3; i++) {
        eqnn_constellation_opts o = stars[i];
        o.copies = 1;
        CHECK(!eqnn_constellations(c, &o, 0, 1, pos, present, counts));
        CHECK_ERROR(c, "each must be a number");
    }
    const eqnn_backbone_opts wild = { .spread = NAN };
    CHECK(!eqnn_backbones(c, &wild, 0, 1));
    CHECK_ERROR(c, "the spread is nan");
    const eqnn_chunk_opts chunks[] = { { .length = -1 }, { .chunks = -1 }, { .dt = -1 },
                                       { .dt = NAN }, { .tolerance = NAN } };
    for (int i = 0; i < 5; i++) {
        CHECK(!eqnn_system_chunks(c, eqnn_system_find(c, "oscillator"), &chunks[i], 0, 1, z));
        CHECK_ERROR(c, i < 4 ? "each must be positive" : "a tolerance of nan");
    }
    const eqnn_plot_opts plots[] = { { .width = -1 }, { .height = -1 }, { .x_min = NAN },
                                     { .y_max = INFINITY } };
    for (int i = 0; i < 4; i++) {
        CHECK(!eqnn_plot_make(c, &plots[i]));
        CHECK_ERROR(c, "plot_make: x from");
    }
    const eqnn_series_opts lines[] = { { .size = -1 }, { .size = NAN }, { .opacity = -1 },
                                       { .opacity = 2 } };
    eqnn_plot *p = eqnn_plot_make(c, NULL);
    for (int i = 0; i < 4; i++) {
        CHECK(!eqnn_plot_add(p, NULL, 1, z, z, &lines[i]));
        CHECK_ERROR(c, "plot_add: size");
    }
    eqnn_plot_free(p);
}

TEST(nothing_given)
{
    eqnn_ctx *c = test_context();
    double x[6] = { 0 };
    eqnn_permutation(1, 1, 5, NULL);
    eqnn_average_add(NULL, 1, 1);
    eqnn_score_add(NULL, 2, x, x);
    CHECK(isnan(eqnn_average_value(NULL)) && isnan(eqnn_score_mse(NULL)));
    CHECK(isnan(eqnn_score_mae(NULL)) && isnan(eqnn_score_r2(NULL)));
    CHECK(isnan(eqnn_score_pearson(NULL)) && isnan(eqnn_rmsd(2, x, NULL)));
    CHECK(isnan(eqnn_rmsd(2, NULL, x)) && isnan(eqnn_rmsd_fitted(2, x, NULL)));
    eqnn_batches *b = eqnn_batches_make(c, 3, NULL, 2, 0);
    CHECK(b && eqnn_batches_next(b, NULL) == 0 && eqnn_batches_next(NULL, NULL) == 0);
    eqnn_batches_free(b);
    CHECK_OK(c);
    CHECK(!eqnn_batches_make(c, 3, NULL, 0, 0));
    CHECK_ERROR(c, "batches: 3 examples in batches of 0: needs at least 0 and at least 1");
    CHECK(!eqnn_csv_open(c, NULL, "a", 0));
    CHECK_ERROR(c, "csv_open: there is no path");
    CHECK(!eqnn_csv_open(c, "test_data.csv", NULL, 1));
    CHECK_ERROR(c, "csv_open: there is no header");
}

/* Each number once; seed and stream give other orders, and all six of three come about evenly. */
TEST(permutations)
{
    enum { N = 500 };
    int order[3][N], seen[N] = { 0 }, six[27] = { 0 };
    for (int k = 0; k < 3; k++) eqnn_permutation(1 + (k == 1), 7 + (k == 2), N, order[k]);
    for (int i = 0; i < N; i++) seen[order[0][i]]++;
    for (int i = 0; i < N; i++) CHECK(seen[i] == 1);
    for (int k = 1; k < 3; k++) CHECK(memcmp(order[0], order[k], sizeof order[0]) != 0);
    eqnn_permutation(1, 7, N, order[1]);
    CHECK(memcmp(order[0], order[1], sizeof order[0]) == 0);
    for (uint64_t stream = 0; stream < 6000; stream++) {
        eqnn_permutation(1, stream, 3, seen);
        six[9 * seen[0] + 3 * seen[1] + seen[2]]++;
    }
    const int which[6] = { 5, 7, 11, 15, 19, 21 }; /* 012 021 102 120 201 210 */
    for (int k = 0; k < 6; k++) CHECK(abs(six[which[k]] - 1000) < 150); /* 5 deviations */
    eqnn_permutation(1, 7, 0, NULL);
}

TEST(batches)
{
    eqnn_ctx *c = test_context();
    int seen[70] = { 0 }, n, number = 0, total = 0, differ = 0;
    const int *items;
    eqnn_batches *b = eqnn_batches_make(c, 70, NULL, 32, 1);
    CHECK(eqnn_batches_count(b) == 3);
    for (eqnn_batches_start(b, 5); (n = eqnn_batches_next(b, &items)) > 0; number++) {
        CHECK(n == (number < 2 ? 32 : 6));
        for (int i = 0; i < n; i++) { seen[items[i]]++; differ += items[i] != total++; }
    }
    CHECK(number == 3 && total == 70 && differ > 40);
    for (int i = 0; i < 70; i++) CHECK(seen[i] == 1);
    int before[32];
    eqnn_batches_start(b, 5);
    eqnn_batches_next(b, &items);
    memcpy(before, items, sizeof before);
    eqnn_batches *again = eqnn_batches_make(c, 70, NULL, 32, 1); /* as after a resume */
    eqnn_batches_start(again, 5);
    eqnn_batches_next(again, &items);
    CHECK(memcmp(before, items, sizeof before) == 0);
    eqnn_batches_start(again, 6);
    eqnn_batches_next(again, &items);
    CHECK(memcmp(before, items, sizeof before) != 0);
    eqnn_batches_free(b);
    eqnn_batches_free(again);
    b = eqnn_batches_make(c, 0, NULL, 4, 1);
    CHECK(eqnn_batches_count(b) == 0 && eqnn_batches_next(b, &items) == 0);
    eqnn_batches_free(b);
}

/* ---- metrics ---- */

TEST(scores)
{
    static const double y[4] = { 1e6 + 1, 1e6 + 2, 1e6 + 3, 1e6 + 5 };
    static const double f[4] = { 1e6 + 1, 1e6 + 2.5, 1e6 + 3, 1e6 + 4 };
    eqnn_score s;
    memset(&s, 0, sizeof s);
    CHECK(isnan(eqnn_score_mse(&s)) && isnan(eqnn_score_r2(&s)));
    eqnn_score_add(&s, 4, y, f);
    CHECK_NEAR(eqnn_score_mse(&s), 1.25 / 4, 1e-12);
    CHECK_NEAR(eqnn_score_mae(&s), 1.5 / 4, 1e-12);
    CHECK_NEAR(eqnn_score_r2(&s), 1 - 1.25 / 8.75, 1e-9);
    CHECK_NEAR(eqnn_score_pearson(&s), 6.125 / sqrt(8.75 * 4.6875), 1e-9);
    eqnn_average m = { 0, 0 };
    CHECK(isnan(eqnn_average_value(&m)));
    eqnn_average_add(&m, 3, 1);
    eqnn_average_add(&m, 7, 3);
    CHECK_NEAR(eqnn_average_value(&m), 6, 1e-14);
}

/* ---- terminal ---- */

static void read_text(const char *path, char *text, size_t size)
{
    FILE *f = fopen(path, "rb");
    size_t n = f ? fread(text, 1, size - 1, f) : 0;
    text[n] = 0;
    if (f) fclose(f);
}

#ifndef _WIN32
/* Standard output is a terminal of our own for a while; other files are none. */
TEST(terminals)
{
    int mode = O_RDWR | O_NOCTTY, both = posix_openpt(mode), before = dup(1);
    int side = both >= 0 && !grantpt(both) && !unlockpt(both) ? open(ptsname(both), mode) : -1;
    FILE *file = tmpfile();
    CHECK(file && !eqnn_is_terminal(file) && !eqnn_colour(file));
    if (file) fclose(file);
    if (side < 0 || before < 0) return; /* there are none here */
    fflush(stdout);
    dup2(side, 1);
    setenv("TERM", "xterm", 1);
    setenv("NO_COLOR", "", 1);
    int terminal = eqnn_is_terminal(stdout), colour = eqnn_colour(stdout);
    setenv("NO_COLOR", "1", 1);
    int plain = eqnn_is_terminal(stdout) && !eqnn_colour(stdout);
    unsetenv("NO_COLOR");
    setenv("TERM", "dumb", 1);
    int dumb = eqnn_is_terminal(stdout) || eqnn_colour(stdout);
    dup2(before, 1);
    CHECK(terminal && colour && plain && !dumb);
    close(before);
    close(side);
    close(both);
}
#endif

/* Of nothing, beyond the end, and of numbers whose hundredfold is none. */
TEST(progress_of_any_size)
{
    static const struct { int64_t total, first, done; } cases[] = {
        { 0, 0, 0 }, { 0, 0, 1 }, { 3, 0, 9 }, { 3, 5, 6 }, { 3, 0, -4 }, { -2, 0, 1 },
        { INT64_MAX, 0, INT64_MAX / 2 }
    };
    char text[400];
    FILE *file = fopen("test_data.txt", "wb");
    for (int i = 0; i < 7 && file; i++) {
        eqnn_progress p;
        eqnn_progress_start(&p, file, i ? "some" : NULL, cases[i].total, cases[i].first);
        eqnn_progress_show(&p, cases[i].done, "%d", i);
        eqnn_progress_end(&p);
    }
    if (file) fclose(file);
    read_text("test_data.txt", text, sizeof text);
    for (char *s = text; (s = strchr(s, ',')) != NULL; s++) /* how long it took is not looked at */
        for (char *d = s; *d != '\n' && *d; d++)
            if (d[0] == ':' && d > s + 2) memcpy(d - 2, "--:--", 5);
    CHECK_TEXT(text, "some: 100%, in --:--  1\nsome: 100%, in --:--  2\n"
                     "some: 100%, in --:--  5\nsome:  50%, --:-- left  6\n");
    remove("test_data.txt");
}

static int read_args(eqnn_args *a, const char *words)
{
    static char text[256];
    static const eqnn_option own[] = { { "epochs", "30", "mine" }, { "hidden", "8x0e", "irreps" },
                                       { "bonds", "on", "edges" }, { NULL, NULL, NULL } };
    char *argv[16];
    int argc = 0;
    snprintf(text, sizeof text, "program %s", words);
    for (char *s = strtok(text, " "); s; s = strtok(NULL, " ")) argv[argc++] = s;
    return eqnn_args_read(a, argc, argv, "a test", own);
}

TEST(options)
{
    eqnn_args a;
    CHECK(read_args(&a, "--seed 18446744073709551615 --no-bonds --hidden=4x1o --rate 1") == -1);
    CHECK_TEXT(a.error, "unknown option '--rate'; --help lists them");
    CHECK(read_args(&a, "--seed 18446744073709551615 --no-bonds --hidden=4x1o --threads 2") == 1);
    CHECK(eqnn_args_seed(&a) == 18446744073709551615u && !eqnn_args_on(&a, "bonds"));
    CHECK_TEXT(eqnn_args_text(&a, "hidden"), "4x1o");
    CHECK(eqnn_args_int(&a, "epochs", 0, 99) == 30 && !eqnn_args_given(&a, "epochs"));
    CHECK(eqnn_args_given(&a, "hidden") && !a.error[0]);
    CHECK(read_args(&a, "--epochs 3x") == 1 && eqnn_args_int(&a, "epochs", 1, 99) == 1);
    CHECK_TEXT(a.error, "option --epochs: '3x' is not a whole number from 1 to 99");
    CHECK(read_args(&a, "--epochs") == -1);
    CHECK_TEXT(a.error, "option '--epochs' needs a value");
    CHECK(read_args(&a, "--bonds=maybe") == -1 && read_args(&a, "file") == -1);
    CHECK(read_args(&a, "--no-hidden") == -1 && read_args(&a, "--") == -1);
    CHECK(read_args(&a, "--seed -1") == 1 && eqnn_args_seed(&a) * 0 == 0 && a.error[0]);
}

/* As the papers' commands write them: --batch_size, --aug False, --fill 1/2 */
TEST(options_of_other_programs)
{
    eqnn_args a;
    static char word[3][16] = { "program", "--batch_size", "1/8" };
    static const eqnn_option own[] = { { "batch-size", "2", "" }, { NULL, NULL, NULL } };
    char *argv[3] = { word[0], word[1], word[2] };
    CHECK(read_args(&a, "--bonds False --threads 2") == 1 && !eqnn_args_on(&a, "bonds"));
    CHECK(read_args(&a, "--bonds --threads 2") == 1 && eqnn_args_on(&a, "bonds"));
    CHECK(read_args(&a, "--no-bonds --bonds=True") == 1 && eqnn_args_on(&a, "bonds"));
    CHECK(read_args(&a, "--bonds 1") == -1);
    CHECK(eqnn_args_read(&a, 3, argv, "a test", own) == 1);
    CHECK(eqnn_args_number(&a, "batch-size") == 0.125 && !a.error[0]);
    CHECK(read_args(&a, "--epochs 1/") == 1 && eqnn_args_number(&a, "epochs") == 0 && a.error[0]);
    CHECK(read_args(&a, "--epochs 1/0") == 1 && eqnn_args_number(&a, "epochs") == 0 && a.error[0]);
}

/* Entries with a default "--other" are other names of that option, a common one too. */
TEST(options_of_two_names)
{
    eqnn_args a;
    static char word[6][20] = { "program", "--learning_rate", ".25", "--no-augment",
                                "--model_seed=9", "--lost=1" };
    static const eqnn_option own[] = {
        { "lr", "1", "rate" },         { "learning-rate", "--lr", NULL },  { "aug", "on", "turns" },
        { "augment", "--aug", NULL },  { "model-seed", "--seed", NULL },   { "lost", "--no", NULL },
        { NULL, NULL, NULL } };
    char text[1000], *argv[6] = { word[0], word[1], word[2], word[3], word[4], word[5] };
    CHECK(eqnn_args_read(&a, 5, argv, "a test", own) == 1 && eqnn_args_seed(&a) == 9);
    CHECK(eqnn_args_number(&a, "lr") == 0.25 && eqnn_args_given(&a, "lr"));
    CHECK(!eqnn_args_on(&a, "aug") && eqnn_args_given(&a, "augment"));
    CHECK_TEXT(eqnn_args_settings(&a, "lr,aug"), "--lr .25 --aug off");
    eqnn_args_only(&a, 1, "lr,aug", "nets");
    eqnn_args_only(&a, 0, "threads,epochs", "nets");
    CHECK(!a.error[0]);
    eqnn_args_only(&a, 0, "threads,aug,lr", "nets");
    CHECK_TEXT(a.error, "option --aug is of no use here: it is for nets");
    a.error[0] = 0;
    eqnn_args_only(&a, 0, "aug2", "nets");
    CHECK_TEXT(a.error, "the program asks for an option 'aug2' it does not list");
    CHECK(eqnn_args_read(&a, 6, argv, "a test", own) == -1); /* there is no --no */
    CHECK_TEXT(a.error, "unknown option '--lost=1'; --help lists them");
    FILE *f = fopen("test_data.txt", "wb");
    if (f) { eqnn_args_help(&a, f); fclose(f); }
    read_text("test_data.txt", text, sizeof text);
    CHECK(strstr(text, "--learning-rate ... the same as --lr\n"));
    remove("test_data.txt");
}

/* How long a run is: minutes by default, epochs when they are asked for, both when both are. */
TEST(options_of_a_run)
{
    eqnn_args a;
    static char word[7][20] = { "program", "--resume", "--lr=2", "--epochs", "7", "--minutes=3",
                                "--epochs=0" };
    static const eqnn_option own[] = { { "minutes", "1/2", "of training" }, { "lr", "1", "rate" },
                                       { "evals", "9", "looks" }, { NULL, NULL, NULL } };
    char *argv[7];
    for (int i = 0; i < 7; i++) argv[i] = word[i];
    CHECK(eqnn_args_read(&a, 3, argv, "a test", own) == 1);
    eqnn_run_opts o = eqnn_args_run(&a, "lr");
    CHECK(o.epochs == 0 && o.seconds == 30 && o.looks == 9 && o.resume && !a.error[0]);
    CHECK_TEXT(o.settings, "--lr 2");
    CHECK(eqnn_args_read(&a, 5, argv, "a test", own) == 1);
    o = eqnn_args_run(&a, "");
    CHECK(o.epochs == 7 && o.seconds == 0 && !*o.settings);
    CHECK(eqnn_args_read(&a, 6, argv, "a test", own) == 1);
    o = eqnn_args_run(&a, "");
    CHECK(o.epochs == 7 && o.seconds == 180);
    CHECK(eqnn_args_read(&a, 7, argv, "a test", own) == 1);
    o = eqnn_args_run(&a, "");
    CHECK(o.epochs == 0 && o.seconds == 0 && !a.error[0]);
    CHECK(eqnn_args_read(&a, 2, argv, "a test", own + 3) == 1); /* no such options */
    o = eqnn_args_run(&a, "");
    CHECK(o.epochs > 0 && o.seconds == 0 && o.looks == 0 && !a.error[0]);
}

/* --net_config "{'k': 256, 'group': T(2)}" */
TEST(options_in_dictionaries)
{
    eqnn_args a;
    static char word[5][60] = { "program", "--net_config",
                                "{'k':256, \"group\" : SO(2,1),'aug':False}", "--net-cfg={'k': 3}",
                                "--net-config={}" };
    static const eqnn_option own[] = {
        { "k", "1", "channels" },   { "group", "", "a group" }, { "net-config", "{}", "of these" },
        { "aug", "on", "turns" },   { "net-cfg", "--net-config", NULL }, { NULL, NULL, NULL } };
    char *argv[5] = { word[0], word[1], word[2], word[3], word[4] };
    CHECK(eqnn_args_read(&a, 3, argv, "a test", own) == 1 && !eqnn_args_on(&a, "aug"));
    CHECK(eqnn_args_int(&a, "k", 0, 999) == 256 && eqnn_args_given(&a, "k"));
    CHECK_TEXT(eqnn_args_text(&a, "group"), "SO(2,1)");
    CHECK(eqnn_args_read(&a, 5, argv, "a test", own) == 1 && eqnn_args_int(&a, "k", 0, 999) == 3);
    static const char *const bad[][2] = {
        { "k:2", "'k:2' is no dictionary of options {'name': value, ..}" },
        { "{'a': {'k': 2}}", "'{'a': {'k': 2}}' is no dictionary of options {'name': value, ..}" },
        { "{'width': 2}", "unknown option '--width=2'; --help lists them" },
        { "{'k'}", "option '--k' needs a value" },
    };
    for (int i = 0; i < 4; i++) {
        strcpy(word[2], bad[i][0]);
        CHECK(eqnn_args_read(&a, 3, argv, "a test", own) == -1);
        CHECK_TEXT(a.error, bad[i][1]);
    }
    char longest[400];
    snprintf(longest, sizeof longest, "{'group': %0300d}", 0);
    argv[2] = longest;
    CHECK(eqnn_args_read(&a, 3, argv, "a test", own) == 1);
    argv[3] = word[1], argv[4] = longest;
    CHECK(eqnn_args_read(&a, 5, argv, "a test", own) == -1 && a.error[0]);
}

/* Entries with a NULL value are common options that the program does not take. */
TEST(options_not_taken)
{
    eqnn_args a;
    static char word[3][16] = { "program", "--epochs", "2" };
    static const eqnn_option own[] = { { "epochs", NULL, NULL }, { "resume", NULL, NULL },
                                       { NULL, NULL, NULL } };
    char text[1000], *argv[3] = { word[0], word[1], word[2] };
    CHECK(eqnn_args_read(&a, 3, argv, "a test", own) == -1);
    CHECK_TEXT(a.error, "this program does not take '--epochs'; --help lists what it takes");
    strcpy(word[1], "--no-resume");
    CHECK(eqnn_args_read(&a, 2, argv, "a test", own) == -1 && a.error[0]);
    strcpy(word[1], "--seed=3");
    CHECK(eqnn_args_read(&a, 2, argv, "a test", own) == 1 && eqnn_args_seed(&a) == 3);
    FILE *f = fopen("test_data.txt", "wb");
    if (f) { eqnn_args_help(&a, f); fclose(f); }
    read_text("test_data.txt", text, sizeof text);
    CHECK(strstr(text, "--out") && !strstr(text, "--epochs") && !strstr(text, "--resume"));
    remove("test_data.txt");
}

TEST(programs)
{
    eqnn_args a;
    const char *list = "T(2),,b", *word;
    CHECK(read_args(&a, "--seed 7 --threads 2") == 1);
    eqnn_opts o = eqnn_args_context(&a);
    CHECK(o.seed == 7 && o.threads == 2 && !a.error[0]);
    eqnn_ctx *c = eqnn_program_start(&a, &o);
    CHECK(c && eqnn_seed(c) == 7 && eqnn_program_end(&a, c) == 0);
    CHECK(read_args(&a, "--device gpu") == 1);
    o = eqnn_args_context(&a);
    CHECK_TEXT(o.device, "gpu");
    c = eqnn_make(&o);
    CHECK_ERROR(c, "make: device \"gpu\" is unknown; there are \"cpu\", \"cuda\" and "
                   "\"cuda:0\", \"cuda:1\", ..");
    eqnn_free(c);
    CHECK(read_args(&a, "--epochs 7") == 1 && eqnn_args_within(&a, "epochs", 0, 7) == 7);
    CHECK(!a.error[0] && eqnn_args_within(&a, "epochs", 0, 6) == 7);
    CHECK_TEXT(a.error, "option --epochs: 7 is not in 0..6");
    CHECK(read_args(&a, "--epochs 7 --seed 3") == 1);
    CHECK_TEXT(eqnn_args_settings(&a, "seed,data,epochs"), "--seed 3 --epochs 7");
    CHECK(!a.error[0] && !*eqnn_args_settings(&a, "data") && !*eqnn_args_settings(&a, "nothing"));
    CHECK_TEXT(a.error, "the program asks for an option 'nothing' it does not list");
    CHECK(eqnn_next_word(&list, &word) == 4 && !strncmp(word, "T(2)", 4));
    CHECK(eqnn_next_word(&list, &word) == 0 && eqnn_next_word(&list, &word) == 1 && *word == 'b');
    CHECK(eqnn_next_word(&list, &word) == 0 && !*list);
    list = "Embed(SO(2),3,0),SO(2,1)),b";
    CHECK(eqnn_next_word(&list, &word) == 16 && !strncmp(word, "Embed(SO(2),3,0)", 16));
    CHECK(eqnn_next_word(&list, &word) == 8 && eqnn_next_word(&list, &word) == 1 && *word == 'b');
    list = "SO(2,1";
    CHECK(eqnn_next_word(&list, &word) == 6 && !*list);
}

TEST(logs)
{
    eqnn_ctx *c = test_context();
    char text[256];
    for (int run = 0; run < 2; run++) {
        eqnn_csv *f = eqnn_csv_open(c, "test_data.csv", "model,loss", run);
        eqnn_csv_text(f, run ? "a \"b\", c" : "plain");
        if (run) eqnn_csv_text(f, NULL);
        else eqnn_csv_number(f, 0.25);
        if (run) eqnn_csv_number(f, NAN);
        eqnn_csv_end(f);
        eqnn_csv_close(f);
    }
    read_text("test_data.csv", text, sizeof text);
    CHECK_TEXT(text, "model,loss\nplain,0.25\n\"a \"\"b\"\", c\",,\n");
    CHECK(!eqnn_csv_open(c, "test_data.csv", "model,lass", 1));
    CHECK_ERROR(c, "other columns");
    for (int cut = 0; cut < 2; cut++) { /* in a row, and behind the titles */
        FILE *part = fopen("test_data.csv", "wb");
        if (part) { fputs(cut ? "a,b" : "a,b\n4,5", part); fclose(part); }
        eqnn_csv *f = eqnn_csv_open(c, "test_data.csv", "a,b", 1);
        eqnn_csv_number(f, 7);
        eqnn_csv_end(f);
        eqnn_csv_close(f);
        read_text("test_data.csv", text, sizeof text);
        CHECK_TEXT(text, cut ? "a,b\n7\n" : "a,b\n4,5\n7\n");
    }
    remove("test_data.csv");
    CHECK(!eqnn_make_folder(c, ""));
    CHECK_ERROR(c, "cannot make the folder '': No such file");
    CHECK(eqnn_make_folder(c, "test_folder/a/b") && eqnn_make_folder(c, "test_folder/a/b/"));
    remove("test_folder/a/b");
    remove("test_folder/a");
    remove("test_folder");
    CHECK(!eqnn_make_folder(c, "/dev/null/a"));
    CHECK_ERROR(c, "cannot make the folder '/dev/null/a'");
}

TEST(paths)
{
    eqnn_ctx *c = test_context();
    const char *one = eqnn_path_in(c, "a/b", "%s%d.csv", "log", 3);
    CHECK_TEXT(eqnn_path_in(c, "/", "x"), "//x");
    CHECK_TEXT(one, "a/b/log3.csv");
    CHECK_TEXT(eqnn_path_in(c, "", "log.csv"), "");
    CHECK_TEXT(eqnn_path_in(c, NULL, "log.csv"), "");
    CHECK_TEXT(eqnn_path_in(c, "a", "%0256d", 0), "");
    CHECK_ERROR(c, "is too long for the name of a file");
}

TEST(tables)
{
    eqnn_ctx *c = test_context();
    char text[256];
    eqnn_table *t = eqnn_table_make(c, "model|error");
    eqnn_table_cell(t, "no motion");
    eqnn_table_number(t, "%.1f", 2.5);
    eqnn_table_cell(t, "lost");
    eqnn_table_number(t, "%.1f", NAN);
    FILE *f = fopen("test_data.txt", "wb");
    CHECK(f != NULL);
    if (f) { eqnn_table_print(t, f); fclose(f); }
    read_text("test_data.txt", text, sizeof text);
    CHECK_TEXT(text, "model      error\n---------  -----\nno motion    2.5\nlost           -\n");
    eqnn_table_free(t);
    remove("test_data.txt");
}

/* ---- plots ---- */

TEST(plots)
{
    eqnn_ctx *c = test_context();
    static char text[20000];
    double x[3] = { 1, 10, 100 }, y[3] = { 0, NAN, 5 };
    eqnn_plot_opts o;
    memset(&o, 0, sizeof o);
    o.title = "a < b & c";
    o.log_x = 1;
    eqnn_plot *p = eqnn_plot_make(c, &o);
    CHECK(eqnn_plot_add(p, "series", 3, x, y, NULL) && eqnn_plot_add(p, NULL, 0, x, y, NULL));
    CHECK(eqnn_plot_save(p, "test_data.svg"));
    read_text("test_data.svg", text, sizeof text);
    CHECK(strstr(text, "<svg ") && strstr(text, "</svg>") && strstr(text, "a &lt; b &amp; c"));
    CHECK(!strstr(text, "nan") && !strstr(text, "inf"));
    eqnn_plot_free(p);
    p = eqnn_plot_make(c, NULL); /* nothing at all */
    CHECK(eqnn_plot_save(p, "test_data.svg"));
    for (int i = 0; i < 3; i++) y[i] = 1e-30 * i;
    CHECK(eqnn_plot_add(p, "tiny", 3, y, y, NULL) && eqnn_plot_save(p, "test_data.svg"));
    for (int i = 0; i < 3; i++) y[i] = 7;
    CHECK(eqnn_plot_add(p, "flat", 3, y, y, NULL) && eqnn_plot_save(p, "test_data.svg"));
    read_text("test_data.svg", text, sizeof text);
    CHECK(!strstr(text, "nan") && !strstr(text, "inf"));
    CHECK(!eqnn_plot_save(p, "/nowhere/x.svg"));
    CHECK_ERROR(c, "/nowhere/x.svg");
    eqnn_plot_free(p);
    for (int equal = 0; equal < 2; equal++) { /* a diagonal of 45 degrees, or of the panel's */
        double line[2] = { 0, 1 }, at[4] = { 0 };
        memset(&o, 0, sizeof o);
        o.equal = equal;
        p = eqnn_plot_make(c, &o);
        CHECK(eqnn_plot_add(p, NULL, 2, line, line, NULL) && eqnn_plot_save(p, "test_data.svg"));
        eqnn_plot_free(p);
        read_text("test_data.svg", text, sizeof text);
        const char *path = strstr(text, "d=\"M");
        CHECK(path && sscanf(path, "d=\"M%lf %lfL%lf %lf", at, at + 1, at + 2, at + 3) == 4);
        CHECK((fabs((at[2] - at[0]) - (at[1] - at[3])) < 1) == equal);
    }
    remove("test_data.svg");
}

static void save_plot(eqnn_ctx *c, const eqnn_plot_opts *o, const double *x, const double *y,
                      char *text, size_t size)
{
    eqnn_plot *p = eqnn_plot_make(c, o);
    CHECK(eqnn_plot_add(p, "series", 4, x, y, NULL) && eqnn_plot_save(p, "test_data.svg"));
    read_text("test_data.svg", text, size);
    CHECK(!strstr(text, "nan") && !strstr(text, "inf") && strlen(text) < 8000);
    eqnn_plot_free(p);
}

/* Numbers at the ends of double, alone and against ordinary limits. */
TEST(plots_of_any_size)
{
    eqnn_ctx *c = test_context();
    static char text[20000];
    static const double x[4] = { 1, 2, 3, 4 }, y[5][4] = {
        { 1e308, -1e308, 1e-308, 0 }, { 1e300, -1e300, 1, 0 }, { 0, 5e-324, 1e-310, 0 },
        { INFINITY, -INFINITY, NAN, 1e301 }, { 1e-300, 1e300, 2, 3 }
    };
    eqnn_plot_opts o;
    for (int k = 0; k < 5; k++)
        for (int way = 0; way < 6; way++) {
            memset(&o, 0, sizeof o);
            o.log_y = way & 1;
            o.equal = way & 2;
            if (way & 4) o.x_min = 2, o.x_max = 3, o.y_min = 2, o.y_max = 1e-9;
            save_plot(c, &o, x, y[k], text, sizeof text);
            if (k == 3) CHECK(!strchr(strstr(text, "<path"), 'L'));
        }
    save_plot(c, NULL, x, y[1], text, sizeof text);
    CHECK(strstr(text, "stroke-linecap=\"round\" d=\"M") && strstr(text, "\">300</tspan>"));
    remove("test_data.svg");
}

/* Bytes that are not UTF-8, ends of the text within a character, and what a colour is not. */
TEST(plot_texts)
{
    eqnn_ctx *c = test_context();
    static char text[20000];
    double x[4] = { 1, 2, 3, 4 };
    eqnn_plot_opts o;
    eqnn_series_opts s;
    memset(&o, 0, sizeof o);
    memset(&s, 0, sizeof s);
    o.title = "\xc3\xa4 \xe4 \xc0\x80 \xed\xa0\x80 \xef\xbf\xbf \xf0\x9f\x98\x80 \xf4\x90\x80\x80|";
    o.x_label = "cut \xe2\x82";
    save_plot(c, &o, x, x, text, sizeof text);
#define BAD "&#65533;"
    CHECK(strstr(text, ">\xc3\xa4 " BAD " " BAD BAD " " BAD BAD BAD " " BAD BAD BAD
                       " \xf0\x9f\x98\x80 " BAD BAD BAD BAD "|<") != NULL);
    CHECK(strstr(text, "cut " BAD BAD "</text>") != NULL);
    eqnn_plot *p = eqnn_plot_make(c, NULL);
    s.colour = "rgb(1, 2, 3)";
    CHECK(eqnn_plot_add(p, NULL, 4, x, x, &s));
    s.colour = "red\" onload=\"";
    CHECK(!eqnn_plot_add(p, NULL, 4, x, x, &s));
    CHECK_ERROR(c, "plot_add: 'red\" onload=\"' is no colour");
    CHECK(!eqnn_plot_add(p, NULL, -1, x, x, NULL));
    CHECK_ERROR(c, "plot_add: -1 points");
    CHECK(!eqnn_plot_add(p, NULL, 4, NULL, x, NULL));
    CHECK_ERROR(c, "plot_add: 4 points, but x or y is NULL");
    CHECK(eqnn_plot_add(p, NULL, 0, NULL, NULL, NULL));
    eqnn_plot_free(p);
    remove("test_data.svg");
}

/* Left edge of the legend and right end of the axes, as drawn: dots on a line, or everywhere. */
static void plot_legend(int everywhere, double *legend, double *axes)
{
    eqnn_ctx *c = test_context();
    static char text[300000];
    double x[400], y[400];
    for (int i = 0; i < 400; i++) {
        x[i] = i % 20;
        y[i] = everywhere ? i / 20 : i % 20;
    }
    eqnn_plot *p = eqnn_plot_make(c, NULL);
    CHECK(eqnn_plot_add(p, "dots", 400, x, y, &(eqnn_series_opts){ .points = 1 }));
    CHECK(eqnn_plot_save(p, "test_data.svg"));
    read_text("test_data.svg", text, sizeof text);
    const char *clip = strstr(text, "<clipPath"), *box = strstr(text, "rx=\"3\"");
    while (box && box > text && strncmp(box, "<rect", 5)) box--;
    double left = NAN, top = NAN, width = NAN;
    *legend = *axes = NAN;
    CHECK(clip && sscanf(strstr(clip, "<rect"), "<rect x=\"%lf\" y=\"%lf\" width=\"%lf\"", &left,
                         &top, &width) == 3);
    CHECK(box && sscanf(box, "<rect x=\"%lf\"", legend) == 1);
    *axes = left + width;
    eqnn_plot_free(p);
    remove("test_data.svg");
}

TEST(plot_legend_covers_nothing)
{
    double legend, axes, narrow;
    plot_legend(0, &legend, &axes);
    CHECK(legend < axes);
    plot_legend(1, &legend, &narrow);
    CHECK(legend > narrow && narrow < axes - 50);
}

/* Rows of another name, with too few cells, or with no number are passed over. */
TEST(plot_of_a_log)
{
    eqnn_ctx *c = test_context();
    static char text[20000];
    FILE *f = fopen("test_data.txt", "wb");
    if (f)
        fprintf(
            f, "model,epoch,loss\na,1,10\nb,1,7\nab,1,3\na,2\na,3,\na,4,nan\na,5,1000\n\na,6,1x\n");
    if (f) fclose(f);
    eqnn_plot *p = eqnn_plot_make(c, NULL);
    CHECK(eqnn_plot_csv(p, "test_data.txt", "a", 1, 2, NULL));
    CHECK(!eqnn_plot_csv(p, "test_data.txt", "nobody", 1, 2, NULL) && !eqnn_error(c));
    CHECK(!eqnn_plot_csv(p, "test_data.txt", "a", 1, 9, NULL));
    CHECK_ERROR(c, "plot_csv: 'test_data.txt' has no column 9 (from 0): its lines have 3");
    CHECK(!eqnn_plot_csv(p, "test_data.txt", "nobody", 3, 1, NULL));
    CHECK_ERROR(c, "has no column 3");
    CHECK(!eqnn_plot_csv(p, "test_data.txt", "a", 1, -1, NULL));
    CHECK_ERROR(c, "plot_csv: 'test_data.txt', columns 1 and -1: needs a path and columns from 0");
    CHECK(!eqnn_plot_csv(p, NULL, "a", 1, 2, NULL));
    CHECK_ERROR(c, "plot_csv: 'NULL'");
    CHECK(eqnn_plot_csv(p, "test_data.txt", NULL, 1, 2, NULL));
    CHECK(eqnn_plot_save(p, "test_data.svg"));
    read_text("test_data.svg", text, sizeof text);
    const char *a = strstr(text, "<path"), *b = a ? strstr(a + 1, "<path") : NULL;
    int points[2] = { 0, 0 };
    for (const char *q = a; q && *q && *q != '>'; q++) points[0] += *q == 'M' || *q == 'L';
    for (const char *q = b; q && *q && *q != '>'; q++) points[1] += *q == 'M' || *q == 'L';
    CHECK(points[0] == 2 && points[1] == 4);
    CHECK(!eqnn_plot_csv(p, "/nowhere/log.csv", "a", 1, 2, NULL));
    CHECK_ERROR(c, "/nowhere/log.csv");
    eqnn_plot_free(p);
    remove("test_data.txt");
    remove("test_data.svg");
}

/* ---- runs ---- */

enum { RUN_ITEMS = 10, RUN_STEPS = 20, RUN_MOST = 200 };

/* What a run was given and came to. */
typedef struct course {
    int items[RUN_MOST], count, looks, look_at[RUN_MOST];
    double losses, weights[2], best[2], value;
} course;

/* y = w x + b with noise, which is another in every step. */
static double course_step(eqnn_ctx *c, eqnn_adam *adam, const eqnn_schedule *s, eqnn_run *r,
                          const int *items, int n)
{
    double x[3], noise[3], y[3];
    eqnn_random(c, "noise", 1, (size_t)n, noise);
    for (int i = 0; i < n; i++) {
        x[i] = items[i] * 0.1;
        y[i] = 3 * x[i] - 1 + 0.1 * noise[i];
    }
    eqnn_tensor *out = eqnn_linear(eqnn_from_double(c, n, 1, x), "line", 1, NULL);
    eqnn_tensor *loss = eqnn_mse(out, eqnn_from_double(c, n, 1, y));
    double value = eqnn_value(loss);
    eqnn_backward(loss);
    if (adam) {
        eqnn_adam_rate(adam, eqnn_run_rate(r, s));
        eqnn_adam_step(adam);
    }
    eqnn_reset(c);
    return value;
}

static void course_weights(eqnn_ctx *c, double out[2])
{
    out[0] = (double)eqnn_data(eqnn_parameter(c, "line.weight"))[0];
    out[1] = (double)eqnn_data(eqnn_parameter(c, "line.bias"))[0];
}

/* Goes on from the checkpoint for so many steps, then is left, in a look if it can be; 1 at the
   end of the run. A look takes random numbers, and finds values that go down and up again. */
static int course_go(course *k, int resume, int steps, int in_look)
{
    eqnn_ctx *c = test_context();
    eqnn_schedule s;
    eqnn_run_opts o;
    const int *items, first[1] = { 0 };
    int n, over = 1;
    memset(&s, 0, sizeof s);
    memset(&o, 0, sizeof o);
    s.kind = EQNN_COSINE, s.rate = 0.05, s.warmup = 100000, s.overlap = 1;
    o.batch = 3, o.epochs = 5, o.looks = 7.5, o.path = "test_run.safetensors", o.resume = resume;
    course_step(c, NULL, &s, NULL, first, 1);
    eqnn_zero_gradients(c);
    eqnn_run *r = eqnn_run_make(c, "line", RUN_ITEMS, &o);
    eqnn_adam *adam = eqnn_adam_make(c, NULL);
    while ((n = eqnn_run_next(r, &items)) >= 0) {
        if (n == 0) {
            double t = eqnn_run_done(r) - 0.6, value = t * t;
            eqnn_reset(c);
            if (steps <= 0 && in_look) break;
            CHECK(eqnn_run_look(r, value) == 1);
            k->look_at[k->looks++] = (int)r->steps;
            k->value = r->best;
            continue;
        }
        if (steps-- <= 0 && !in_look) break;
        for (int i = 0; i < n && k->count < RUN_MOST; i++) k->items[k->count++] = items[i];
        eqnn_run_step(r, course_step(c, adam, &s, r, items, n), n);
        k->losses += eqnn_average_value(&r->loss);
    }
    if (n >= 0) over = 0;
    if (over) {
        course_weights(c, k->weights);
        CHECK(eqnn_run_best(r) == 1 && r->steps == RUN_STEPS && r->best == k->value);
        course_weights(c, k->best);
    }
    eqnn_run_free(r);
    CHECK_OK(c);
    return over;
}

/* Where a number has a comma, files have points; what is written there is read elsewhere. */
TEST(files_whatever_the_locale)
{
    static const char *const commas[] = { "de_DE.UTF-8", "de_DE.utf8", "de_DE", "fr_FR.UTF-8",
                                          "German_Germany.1252" };
    static const double x[2] = { 0.25, 1.5 };
    static char text[40000];
    eqnn_ctx *c = test_context();
    course whole, parts;
    int i = 0;
    memset(&whole, 0, sizeof whole);
    memset(&parts, 0, sizeof parts);
    while (i < 5 && !setlocale(LC_NUMERIC, commas[i])) i++;
    test_note("locale %s", i < 5 ? commas[i] : "C: there is no other");
    eqnn_csv *f = eqnn_csv_open(c, "test_data.csv", "a,b", 0);
    eqnn_csv_row(f, "0,5", 1, x);
    eqnn_csv_close(f);
    read_text("test_data.csv", text, sizeof text);
    CHECK_TEXT(text, "a,b\n\"0,5\",0.25\n");
    eqnn_plot *p = eqnn_plot_make(c, NULL);
    const eqnn_series_opts blue = { .colour = "rgb(0,114,178)" };
    CHECK(eqnn_plot_add(p, "0,5", 2, x, x, &blue) && eqnn_plot_save(p, "test_data.svg"));
    eqnn_plot_free(p);
    read_text("test_data.svg", text, sizeof text);
    CHECK(strstr(text, "rgb(0, 114, 178)") != NULL);
    char *legend = strstr(text, "0,5");
    CHECK(legend && strstr(text, "x1=\""));
    if (legend) legend[1] = ' '; /* the only comma between digits */
    for (char *s = text; *s && s[1]; s++)
        CHECK(!(isdigit((unsigned char)*s) && s[1] == ',' && isdigit((unsigned char)s[2])));
    CHECK(course_go(&whole, 0, 1000, 0) == 1);
    eqnn_run_forget("test_run.safetensors");
    CHECK(!course_go(&parts, 1, 3, 0));
    setlocale(LC_NUMERIC, "C");
    CHECK(!course_go(&parts, 1, 3, 1));
    if (i < 5) setlocale(LC_NUMERIC, commas[i]);
    CHECK(course_go(&parts, 1, 1000, 0) == 1);
    CHECK(!memcmp(&whole, &parts, sizeof whole));
    setlocale(LC_NUMERIC, "C");
    remove("test_data.csv");
    remove("test_data.svg");
    eqnn_run_forget("test_run.safetensors");
}

/* A run that was left again and again, also in the midst of looks, is the run that was not: same
   examples, losses, looks and weights. */
TEST(run_resumes)
{
    for (int in_look = 0; in_look < 2; in_look++) {
        course whole, broken;
        int times = 0;
        memset(&whole, 0, sizeof whole);
        memset(&broken, 0, sizeof broken);
        eqnn_run_forget("test_run.safetensors");
        CHECK(course_go(&whole, 1, 1000, 0) == 1);
        eqnn_run_forget("test_run.safetensors");
        while (times < 30 && !course_go(&broken, 1, 3, in_look)) times++;
        CHECK(times > 2 && times < 30);
        CHECK(whole.count == RUN_ITEMS * 5 && whole.looks == 8 && whole.look_at[7] == RUN_STEPS);
        CHECK(whole.value < 0.01 && whole.best[0] < whole.weights[0]);
        CHECK(!memcmp(&whole, &broken, sizeof whole));
        CHECK(course_go(&broken, 1, 3, 0) == 1); /* is over: nothing changes */
        CHECK(!memcmp(&whole, &broken, sizeof whole));
    }
    eqnn_run_forget("test_run.safetensors");
    FILE *f = fopen("test_run.best.safetensors", "rb");
    CHECK(f == NULL);
    if (f) fclose(f);
}

/* What a run was begun with: a resume that says otherwise learns nothing and loses nothing. */
TEST(run_settings)
{
    static const char *then = "--lr 0.1 --n 10 --seed 1", *other[] = {
        "--lr 0.1 --n 12 --seed 1", "begun with --n 10, now it is --n 12",
        "--lr 0.1 --n 10", "begun with --seed 1, now it is less",
        "--lr 0.1 --n 10 --seed 1 --aug on", "begun with less, now it is --aug on",
        "--lr 0.1 --n 1", "begun with --n 10, now it is --n 1" };
    eqnn_run_opts o;
    memset(&o, 0, sizeof o);
    o.epochs = 1, o.path = "test_run.safetensors", o.resume = 1, o.settings = then;
    eqnn_run_forget(o.path);
    for (int k = 0; k < 4; k++) {
        eqnn_ctx *c = test_context();
        eqnn_linear(eqnn_zeros(c, 1, 1), "line", 1, NULL);
        eqnn_reset(c);
        eqnn_run *r = eqnn_run_make(c, "a", 3, &o); /* begins, then goes on */
        CHECK(r != NULL && !strcmp(eqnn_noted(c, "settings"), then));
        eqnn_run_free(r);
        o.settings = other[2 * k];
        CHECK(!eqnn_run_make(c, "a", 3, &o));
        CHECK_ERROR(c, other[2 * k + 1]);
        o.settings = then;
    }
    eqnn_run_forget(o.path);
}

TEST(run_limits)
{
    eqnn_ctx *c = test_context();
    eqnn_run_opts o;
    const int *items = NULL, own[3] = { 7, 8, 9 };
    int steps = 0, looks = 0, n;
    memset(&o, 0, sizeof o);
    eqnn_run *r = eqnn_run_make(c, "nothing to do", 3, &o);
    CHECK(r && eqnn_run_done(r) == 1 && eqnn_run_next(r, &items) == -1);
    CHECK(isnan(eqnn_run_pace(r)) && eqnn_run_epochs(r) == 0 && eqnn_run_best(r) == 0);
    eqnn_run_free(r);
    o.epochs = 4;
    r = eqnn_run_make(c, "no examples", 0, &o);
    CHECK(r && eqnn_run_next(r, &items) == -1);
    eqnn_run_free(r);
    o.seconds = 0.02, o.epochs = 0, o.looks = 3, o.items = own;
    r = eqnn_run_make(c, "in time", 3, &o);
    while ((n = eqnn_run_next(r, &items)) >= 0) {
        CHECK(n == 0 || (n == 1 && items[0] >= 7 && items[0] <= 9));
        for (double begin = eqnn_clock(); eqnn_clock() - begin < 0.001;) continue;
        if (n == 0) looks += eqnn_run_look(r, NAN);
        else eqnn_run_step(r, steps++, n);
    }
    CHECK(r->seconds >= 0.02 && r->steps == steps && steps > 0 && steps < 22);
    CHECK(looks >= 1 && looks <= 3 && eqnn_run_done(r) == 1 && r->looks == 3);
    CHECK(r->step_seconds <= r->seconds + 1e-3 && eqnn_run_pace(r) > 0 && eqnn_run_best(r) == 0);
    eqnn_run_free(r);
}

TEST(run_errors)
{
    eqnn_ctx *c = test_context();
    eqnn_run_opts o, good;
    const int *items;
    memset(&good, 0, sizeof good);
    good.epochs = 1;
    CHECK(!eqnn_run_make(NULL, "a", 1, &good) && !eqnn_run_make(c, "a", -1, &good));
    CHECK_ERROR(c, "run 'a': a negative number of examples");
    o = good, o.batch = -1;
    CHECK(!eqnn_run_make(c, "a", 1, &o));
    CHECK_ERROR(c, "a negative batch");
    o = good, o.seconds = NAN;
    CHECK(!eqnn_run_make(c, "a", 1, &o));
    CHECK_ERROR(c, "seconds");
    o = good, o.looks = -1;
    CHECK(!eqnn_run_make(c, "a", 1, &o));
    CHECK_ERROR(c, "looks");
    o = good, o.save = -1;
    CHECK(!eqnn_run_make(c, "a", 1, &o));
    CHECK_ERROR(c, "between checkpoints");
    eqnn_run *r = eqnn_run_make(c, "a", 3, &good);
    CHECK(eqnn_run_next(r, &items) == 1 && eqnn_run_look(r, 1) == 0);
    CHECK(eqnn_run_next(r, &items) == -1 && eqnn_run_next(r, &items) == -1);
    CHECK_ERROR(c, "eqnn_run_next again without eqnn_run_step");
    eqnn_run_free(r);
    o = good, o.path = "test_run.safetensors", o.resume = 1;
    CHECK(eqnn_save(c, o.path) && !eqnn_run_make(c, "a", 3, &o));
    CHECK_ERROR(c, "call the model once before");
    eqnn_linear(eqnn_zeros(c, 1, 1), "line", 1, NULL);
    CHECK(eqnn_save(c, o.path) && !eqnn_run_make(c, "a", 3, &o));
    CHECK_ERROR(c, "does not say how far the run had come");
    eqnn_run_forget(o.path);
    CHECK(eqnn_run_next(NULL, &items) == -1 && eqnn_run_look(NULL, 0) == 0);
    CHECK(eqnn_run_best(NULL) == 0 && eqnn_run_done(NULL) == 1);
    eqnn_run_step(NULL, 0, 1);
    eqnn_run_end(NULL);
    eqnn_run_free(NULL);
    o.path = "/nowhere/a.safetensors";
    r = eqnn_run_make(c, "a", 3, &o);
    CHECK(eqnn_run_next(r, &items) == 1);
    eqnn_run_free(r);
    CHECK_ERROR(c, "/nowhere/a.safetensors");
}

/* The last test: the flag that Ctrl-C raises stays. */
TEST(run_interrupted)
{
    eqnn_ctx *c = test_context();
    eqnn_run_opts o;
    const int *items;
    char text[2][2000];
    memset(&o, 0, sizeof o);
    memset(text, 0, sizeof text);
    o.epochs = 2, o.looks = 2, o.path = "test_run.safetensors";
    eqnn_linear(eqnn_zeros(c, 1, 1), "line", 1, NULL);
    eqnn_interrupt_catch();
    eqnn_run *r = eqnn_run_make(c, "a", 1, &o);
    CHECK(eqnn_run_next(r, &items) == 1);
    eqnn_run_step(r, 1, 1);
    CHECK(eqnn_run_next(r, &items) == 0); /* a look, before which it is saved */
    read_text(o.path, text[0], sizeof *text);
    eqnn_reset(c);
    raise(SIGINT);
    CHECK(eqnn_interrupted() && eqnn_run_look(r, 0.5) == 0 && r->looks == 0);
    CHECK(eqnn_run_next(r, &items) == -1);
    eqnn_run_free(r);
    read_text(o.path, text[1], sizeof *text); /* the look left no trace */
    CHECK(strstr(text[0] + 8, "\"run\":\"0 1 1 0 ") && !memcmp(text[0], text[1], sizeof *text));
    r = eqnn_run_make(c, "a", 1, &o);
    CHECK(eqnn_run_next(r, &items) == -1);
    eqnn_run_free(r);
    read_text(o.path, text[1], sizeof *text);
    CHECK(strstr(text[1] + 8, "\"run\":\"0 0 0 0 ") != NULL);
    eqnn_run_forget(o.path);
}

TEST_MAIN
