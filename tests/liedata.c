/* liedata.c - eqnn_data.h: systems of particles, constellations, images, molecules, force fields */
#include "test.h"
#include "../eqnn_data.h"

/* ---- systems of particles ---- */

/* The largest difference of the field from (dH/dp, -dH/dq, 0) by differences. */
static double field_error(const eqnn_system *s, double *z)
{
    double dz[256], worst = 0;
    int half = s->particles * s->axes;
    s->field(s, z, dz);
    for (int i = 0; i < s->dim; i++) {
        double h = 1e-5 * fmax(1e-2, fabs(z[i])), x = z[i], up, down;
        if (i >= 2 * half) { worst = fmax(worst, fabs(dz[i])); continue; }
        z[i] = x + h, up = s->energy(s, z);
        z[i] = x - h, down = s->energy(s, z);
        z[i] = x;
        double ours = i < half ? -dz[i + half] : dz[i - half];
        worst = fmax(worst, fabs((up - down) / (2 * h) - ours) / fmax(1, fabs(ours)));
    }
    return worst;
}

/* J^T Omega J - Omega of the flow from time 0 to t, J by differences: the largest entry. */
static double symplectic_error(eqnn_ctx *c, const eqnn_system *s, const double *z0, double t)
{
    static double J[48][256], up[512], down[512];
    int half = s->particles * s->axes;
    double times[2] = { 0, 0 }, z[256], worst = 0, h = 1e-5;
    times[1] = t;
    for (int i = 0; i < 2 * half; i++) {
        memcpy(z, z0, (size_t)s->dim * sizeof *z);
        z[i] = z0[i] + h;
        CHECK(eqnn_system_run(c, s, 0, 1, z, times, 2, up));
        z[i] = z0[i] - h;
        CHECK(eqnn_system_run(c, s, 0, 1, z, times, 2, down));
        for (int k = 0; k < 2 * half; k++) J[i][k] = (up[s->dim + k] - down[s->dim + k]) / (2 * h);
    }
    for (int i = 0; i < 2 * half; i++)
        for (int j = 0; j < 2 * half; j++) {
            double sum = j == i + half ? -1 : i == j + half ? 1 : 0;
            for (int k = 0; k < half; k++)
                sum += J[i][k] * J[j][k + half] - J[i][k + half] * J[j][k];
            worst = fmax(worst, fabs(sum));
        }
    return worst;
}

TEST(particles)
{
    eqnn_ctx *c = test_context();
    static const char *const names[3] = { "coupled", "planets", "moons" };
    static double z[101 * 256];
    double times[101], z0[256];
    for (int i = 0; i < 101; i++) times[i] = 0.01 * i;
    for (int k = 0; k < 6; k++) {
        eqnn_system s;
        CHECK(eqnn_system_particles(c, names[k / 2], k % 2 ? 6 : 4, 2 + k % 2, &s));
        s.start(&s, 3, 11, z0);
        CHECK(field_error(&s, z0) < 1e-6);
        CHECK(eqnn_system_run(c, &s, 0, 1, z0, times, 101, z));
        double energy = fabs(s.energy(&s, z + 100 * s.dim) / s.energy(&s, z) - 1);
        double spin = fabs(s.spin(&s, z + 100 * s.dim) - s.spin(&s, z));
        double form = k < 4 ? symplectic_error(c, &s, z0, 0.3) : 0; /* moons have a kink */
        test_note("%s of %d in %d axes: energy %.1e, spin %.1e, symplectic %.1e", s.name,
                  s.particles, s.axes, energy, spin, form);
        CHECK(energy < (k < 4 ? 1e-9 : 1e-6) && spin < 1e-8 && form < 1e-5);
        int same = 1;
        for (int i = 2 * s.particles * s.axes; i < s.dim; i++)
            same &= z[100 * s.dim + i] == z0[i];
        CHECK(same);
    }
}

/* Planets start on circles about the one star: speed sqrt(G star / r), across r; those of a plane
   go either way. Moons are pushed off by a tenth at most. */
TEST(particles_start)
{
    eqnn_ctx *c = test_context();
    static const char *const names[2] = { "planets", "moons" };
    int places[6] = { 0 }, ways[2] = { 0, 0 };
    for (int k = 0; k < 4; k++) {
        eqnn_system s;
        int axes = 2 + k % 2;
        CHECK(eqnn_system_particles(c, names[k / 2], 6, axes, &s));
        for (int i = 0; i < 60; i++) {
            double z[64];
            int stars = 0;
            s.start(&s, 9 + (uint64_t)k, (uint64_t)i, z);
            for (int p = 0; p < 6; p++) {
                double *x = z + p * axes, *v = x + 6 * axes, m = z[12 * axes + p];
                double r = 0, speed = 0, along = 0;
                for (int a = 0; a < axes; a++) {
                    r += x[a] * x[a];
                    speed += v[a] * v[a] / (m * m);
                    along += x[a] * v[a] / m;
                }
                if (m == s.star) {
                    stars++;
                    places[p]++;
                    CHECK(r == 0 && speed == 0);
                    continue;
                }
                r = sqrt(r);
                CHECK_NEAR(speed, s.G * s.star / r, 1e-12);
                CHECK(fabs(along) <= (k == 2 ? 0.1 : 1e-12) * r * sqrt(speed));
                CHECK(k < 2 ? r > 0.39 && r < 4.11 && m < 0.2 : r > 0.084 && r < 0.936 && m < 4.5);
                if (axes == 2) ways[x[0] * v[1] > x[1] * v[0]]++;
            }
            CHECK(stars == 1);
        }
    }
    test_note("the star was %d..%d, ways %d %d", places[0], places[5], ways[0], ways[1]);
    for (int p = 0; p < 6; p++) CHECK(abs(places[p] - 40) < 4 * 6); /* four deviations */
    CHECK(abs(ways[0] - ways[1]) < 4 * 25);
}

TEST(particles_published)
{
    eqnn_ctx *c = test_context();
    eqnn_system s;
    double z0[36], z[3][501 * 36], times[501], error[2] = { 0, 0 };
    CHECK(eqnn_system_particles(c, "coupled", 6, 2, &s) && s.dim == 36);
    for (int i = 0; i < 2; i++) { /* total momentum: none, or as published */
        double sum = 0;
        s.drifting = i;
        s.start(&s, 1, 0, z0);
        for (int k = 0; k < 6; k++) sum += z0[12 + 2 * k];
        CHECK(i ? fabs(sum) > 1e-3 : fabs(sum) < 1e-14);
    }
    for (int i = 0; i < 11; i++) times[i] = 0.02 * i;
    for (int k = 0; k < 2; k++) CHECK(eqnn_system_run(c, &s, -1 - k, 1, z0, times, 11, z[k]));
    CHECK(eqnn_system_run(c, &s, 0, 1, z0, times, 11, z[2]));
    for (int i = 0; i < 11 * 36; i++)
        for (int k = 0; k < 2; k++) error[k] = fmax(error[k], fabs(z[k][i] - z[2][i]));
    test_note("3/8 rule: errors %.2e and, with half the step, %.2e", error[0], error[1]);
    CHECK(error[0] / error[1] > 12 && error[0] / error[1] < 20); /* fourth order: 16 */
    eqnn_chunk_opts o;
    memset(&o, 0, sizeof o);
    o.chunks = 20, o.dt = 5.0 / 499, o.tolerance = -1;
    CHECK(eqnn_system_chunks(c, &s, &o, 7, 3, z[0]) && eqnn_system_chunks(c, &s, &o, 8, 1, z[1]));
    CHECK(!memcmp(z[0] + 5 * 36, z[1], 5 * 36 * sizeof(double)));
}

TEST(particles_edges)
{
    eqnn_ctx *c = test_context();
    eqnn_system s;
    double z[256] = { 0 }, dz[256], times[2] = { 0, 1 }, two[2 * 256];
    CHECK(eqnn_system_particles(c, "planets", 1, 3, &s));
    s.start(&s, 1, 1, z);
    CHECK(z[6] == 32 && s.energy(&s, z) == 0);
    for (int k = 0; k < 3; k++) { /* coincident particles: finite energy and no force */
        static const char *const names[3] = { "coupled", "planets", "moons" };
        CHECK(eqnn_system_particles(c, names[k], 16, 3, &s) && s.dim <= 128);
        for (int i = 0; i < s.dim; i++) z[i] = i < 96 ? 0 : 1;
        s.field(&s, z, dz);
        double sum = 0;
        for (int i = 0; i < s.dim; i++) sum += fabs(dz[i]);
        CHECK(sum == 0 && isfinite(s.energy(&s, z)));
    }
    CHECK(!eqnn_system_particles(c, "comets", 6, 2, &s));
    CHECK_ERROR(c, "there is no system of particles 'comets'");
    CHECK(!eqnn_system_particles(c, "planets", 17, 2, &s));
    CHECK_ERROR(c, "17 particles of 2 axes");
    CHECK(eqnn_system_particles(c, "coupled", 2, 2, &s));
    CHECK(!eqnn_system_run(c, &s, -0.5, 1, z, times, 2, two));
    CHECK_ERROR(c, "a tolerance of -0.5");
    z[0] = NAN;
    CHECK(!eqnn_system_run(c, &s, -3, 1, z, times, 2, two));
    CHECK_ERROR(c, "is its start finite?");
    CHECK(!eqnn_system_run(c, &s, 0, 1, z, times, 2, two));
    CHECK_ERROR(c, "is its start finite?");
}

/* ---- constellations ---- */

/* How often each pattern is there: two copies of probability 1/2, and 1 in 256 from the rule that
   one must be there. */
static void check_counts(const int *counts, int n)
{
    for (int k = 0; k < 4; k++) {
        double sum = 0;
        for (int i = 0; i < n; i++) {
            sum += counts[4 * i + k];
            CHECK(counts[4 * i + k] >= 0 && counts[4 * i + k] <= 2);
        }
        CHECK(fabs(sum / n - 1) < 4 * sqrt(0.5 / n) + 1.0 / 256); /* four standard errors */
    }
}

TEST(constellations)
{
    eqnn_ctx *c = test_context();
    enum { N = 2000 };
    static double pos[2][N * 68];
    static int present[2][N * 34], counts[2][N * 4];
    eqnn_constellation_opts o;
    memset(&o, 0, sizeof o);
    for (o.published = 0; o.published < 2; o.published++) {
        o.test = 0;
        CHECK(eqnn_constellations(c, &o, 0, N, pos[0], present[0], counts[0]));
        check_counts(counts[0], N);
        for (int i = 0; i < N; i++) { /* points that are there: corners of the patterns counted */
            int n = 0, *k = counts[0] + 4 * i;
            for (int j = 0; j < 34; j++) n += present[0][34 * i + j];
            CHECK(n == 4 * k[0] + 3 * k[1] + 5 * k[2] + 5 * k[3] && n > 0);
        }
        o.test = 1; /* as published the test set is the beginning of the training set */
        CHECK(eqnn_constellations(c, &o, 0, N, pos[1], present[1], counts[1]));
        CHECK((memcmp(pos[0], pos[1], sizeof pos[0]) == 0) == o.published);
        int same = 0;
        for (int i = 0; i < N && !o.published; i++)
            for (int j = 0; j < N; j++) same += pos[0][68 * i] == pos[1][68 * j];
        CHECK(same == 0);
        CHECK(eqnn_constellations(c, &o, N - 1, 1, pos[0], present[0], counts[0]));
        CHECK(!memcmp(pos[0], pos[1] + 68 * (N - 1), 68 * sizeof(double)));
    }
}

/* Without noise a lone pattern keeps its shape, whatever is drawn: the sides of a square. */
TEST(constellation_shape)
{
    eqnn_ctx *c = test_context();
    eqnn_constellation_opts o;
    static eqnn_constellation_draws d;
    double pos[34], far = 0;
    int present[17], counts[4];
    memset(&o, 0, sizeof o);
    o.copies = 1;
    for (int i = 0; i < 17; i++) d.order[i] = 16 - i;
    d.angle[0] = 0.9, d.shift[0][0] = 0.3, d.shift[0][1] = 0.8, d.present[0] = 1, d.turn = 2;
    CHECK(eqnn_constellation(c, &o, &d, pos, present, counts));
    CHECK(counts[0] == 1 && counts[1] + counts[2] + counts[3] == 0);
    for (int i = 0; i < 17; i++) CHECK(present[i] == (i > 12));
    for (int i = 13; i < 17; i++) {
        int j = i == 16 ? 13 : i + 1;
        double side = hypot(pos[2 * i] - pos[2 * j], pos[2 * i + 1] - pos[2 * j + 1]);
        CHECK_NEAR(side, sqrt(2) / 24, 1e-14);
        far = fmax(far, fabs(pos[2 * i]));
    }
    CHECK(far < 1);
    d.order[3] = 17;
    CHECK(!eqnn_constellation(c, &o, &d, pos, present, counts));
    CHECK_ERROR(c, "point 3 comes from point 17 of 17");
    double none[34], little[34];
    o.rotation = -1, o.noise = -1; /* none is as good as a hair's breadth */
    CHECK(eqnn_constellations(c, &o, 5, 1, none, present, counts));
    o.rotation = 1e-12;
    CHECK(eqnn_constellations(c, &o, 5, 1, little, present, counts));
    for (int i = 0; i < 34; i++) CHECK_NEAR(none[i], little[i], 1e-10);
    o.rotation = o.noise = 0;
    o.copies = 9;
    CHECK(!eqnn_constellations(c, &o, 0, 1, pos, present, counts));
    CHECK_ERROR(c, "9 copies");
    o.copies = 1, o.drop = 2;
    CHECK(!eqnn_constellations(c, &o, 0, 1, pos, present, counts));
    CHECK_ERROR(c, "drop 2");
    o.drop = 1; /* all absent: one is put back; and nothing at all to make */
    CHECK(eqnn_constellations(c, &o, 0, 1, pos, present, counts));
    CHECK(counts[0] + counts[1] + counts[2] + counts[3] == 1);
    CHECK(eqnn_constellations(c, &o, 0, 0, NULL, NULL, NULL));
    double one[2] = { 1, 2 }, moment;
    eqnn_point_distances(1, one, present, NULL);
    present[0] = 0;
    eqnn_point_moments(1, one, present, 1, &moment);
    CHECK(moment == 0);
}

/* Distances stay, and the mean of many rotations of a point is its origin: each coordinate of a
   unit vector has variance 1/axes. */
TEST(augmentation)
{
    eqnn_ctx *c = test_context();
    for (int axes = 2; axes < 4; axes++) {
        double mean[3] = { 0, 0, 0 }, move = 0;
        for (int k = 0; k < 4000; k++) {
            double x[9] = { 1, 0, 0, 0, 0, 0, 0, 0, 0 }, length = 0, volume;
            for (int a = 0; a < axes; a++) x[axes * (1 + a % 2) + a] += a > 0;
            double y[9];
            memcpy(y, x, sizeof y);
            CHECK(eqnn_augment(c, 5, (uint64_t)k, 1, 0, 3, axes, y));
            for (int a = 0; a < axes; a++) length += y[a] * y[a];
            CHECK_NEAR(length, 1, 1e-14);
            volume = y[0] * y[axes + 1] - y[1] * y[axes]; /* in a plane: no mirror */
            if (axes == 2 && k == 0) CHECK_NEAR(volume, x[0] * x[3] - x[1] * x[2], 1e-14);
            for (int a = 0; a < axes; a++) mean[a] += y[a] / 4000;
            memcpy(y, x, sizeof y);
            CHECK(eqnn_augment(c, 5, (uint64_t)k, 0, 0.5, 3, axes, y));
            CHECK_NEAR(y[axes] - x[axes], y[0] - x[0], 1e-15);
            move += (y[0] - x[0]) * (y[0] - x[0]) / 4000;
        }
        for (int a = 0; a < axes; a++) CHECK(fabs(mean[a]) < 4 / sqrt(4000.0 * axes));
        CHECK(fabs(move / 0.25 - 1) < 4 * sqrt(2.0 / 4000));
    }
    double x[3];
    CHECK(eqnn_augment(c, 1, 1, 1, 1, 0, 2, NULL));
    CHECK(!eqnn_augment(c, 1, 1, 1, 1, 1, 4, x));
    CHECK_ERROR(c, "1 points of 4 axes");
}

/* ---- images ---- */

static size_t idx(unsigned char *out, int type, const int *shape, int dims, size_t numbers)
{
    out[0] = out[1] = 0, out[2] = (unsigned char)type, out[3] = (unsigned char)dims;
    for (int i = 0; i < dims; i++) {
        out[4 + 4 * i] = out[5 + 4 * i] = 0;
        out[6 + 4 * i] = (unsigned char)(shape[i] >> 8);
        out[7 + 4 * i] = (unsigned char)shape[i];
    }
    for (size_t i = 0; i < numbers; i++) out[4 + 4 * (size_t)dims + i] = (unsigned char)(i + 1);
    return 4 + 4 * (size_t)dims + numbers;
}

TEST(idx_files)
{
    eqnn_ctx *c = test_context();
    unsigned char bytes[256];
    const int shape[3] = { 2, 3, 2 };
    size_t n = idx(bytes, 8, shape, 3, 12);
    eqnn_idx *x = eqnn_idx_parse(c, bytes, n);
    CHECK(x && x->dims == 3 && x->shape[1] == 3 && x->count == 12 && x->bytes == 1);
    CHECK(eqnn_idx_value(x, 11) == 12 && isnan(eqnn_idx_value(x, 12)));
    double out[12];
    CHECK(eqnn_idx_values(x, 2, 99, out) == 10 && out[0] == 3 && out[9] == 12);
    CHECK(eqnn_idx_values(x, 2, 1, out) == 1 && out[0] == 3 && out[1] == 4);
    CHECK(!eqnn_idx_values(x, 12, 1, out) && !eqnn_idx_values(NULL, 0, 1, out));
    CHECK(eqnn_images_turned(c, x, 1, 1, 1, out) && eqnn_images_turned(c, x, 1, 2, 0, out));
    CHECK(!eqnn_images_turned(c, x, 1, 1, 2, out));
    CHECK_ERROR(c, "images 1 to 2 of a file that holds 2");
    eqnn_idx_close(x);
    static const struct { int type; unsigned char bytes[8]; int size; double value; } t[] = {
        { 9, { 0xff }, 1, -1 },
        { 11, { 0xff, 0xfe }, 2, -2 },
        { 12, { 0, 1, 0, 0 }, 4, 65536 },
        { 13, { 0x3f, 0xc0, 0, 0 }, 4, 1.5 },
        { 14, { 0x3f, 0xf8 }, 8, 1.5 }
    };
    for (int i = 0; i < 5; i++) {
        const int one[1] = { 1 };
        n = idx(bytes, t[i].type, one, 1, 0);
        memcpy(bytes + n, t[i].bytes, 8);
        x = eqnn_idx_parse(c, bytes, n + (size_t)t[i].size);
        CHECK(x && eqnn_idx_value(x, 0) == t[i].value);
        eqnn_idx_close(x);
    }
}

TEST(idx_bad)
{
    eqnn_ctx *c = test_context();
    unsigned char bytes[64];
    const int shape[2] = { 4, 5 }, none[2] = { 0, 3 };
    size_t n = idx(bytes, 8, shape, 2, 20);
    for (size_t cut = 0; cut < n; cut++) { /* every shorter file is refused */
        CHECK(!eqnn_idx_parse(c, bytes, cut));
        CHECK_ERROR(c, cut < 4 ? "not an IDX file" : cut < 12 ? "cut off" : "ends before");
    }
    CHECK(!eqnn_idx_parse(c, bytes, n + 1));
    CHECK_ERROR(c, "longer than its header says");
    memset(bytes + 4, 255, 8); /* a header that lies: 2^64 numbers */
    CHECK(!eqnn_idx_parse(c, bytes, n));
    CHECK_ERROR(c, "ends before its numbers do");
    bytes[2] = 10;
    CHECK(!eqnn_idx_parse(c, bytes, n));
    CHECK_ERROR(c, "type that IDX does not have");
    bytes[2] = 8, bytes[3] = 9;
    CHECK(!eqnn_idx_parse(c, bytes, n));
    CHECK_ERROR(c, "more than 8");
    n = idx(bytes, 8, none, 2, 0); /* no image at all is legal */
    eqnn_idx *x = eqnn_idx_parse(c, bytes, n);
    CHECK(x && x->count == 0);
    eqnn_idx_close(x);
    static const int lies[2][3] = { { 65535, 65535, 0 }, { 0, 65535, 65535 } };
    for (int i = 0; i < 2; i++) { /* much of nothing: neither time nor memory */
        n = idx(bytes, 8, lies[i], 3, 0);
        x = eqnn_idx_parse(c, bytes, n);
        CHECK(x && eqnn_images_turned(c, x, 1, 0, lies[i][0], NULL));
        eqnn_idx_close(x);
    }
    memcpy(bytes, "\x1f\x8b\x08", 4);
    CHECK(!eqnn_idx_parse(c, bytes, 32)); /* without zlib or with it */
    CHECK_ERROR(c, "idx: it");
    CHECK(!eqnn_idx_open(c, "/nowhere/images"));
    CHECK_ERROR(c, "cannot open '/nowhere/images'");
}

/* The numbers 7 8 9, packed by gzip; once, twice, and cut off. */
TEST(idx_gzip)
{
    eqnn_ctx *c = test_context();
    static const unsigned char packed[31] = {
        0x1f, 0x8b, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0x02, 0xff, 0x63, 0x60, 0xe0, 0x60,
        0x64, 0x60, 0x60, 0x60, 0x66, 0xe7, 0xe0, 0x04, 0x00, 0xad, 0x98, 0x0a, 0xba, 0x0b,
        0x00, 0x00, 0x00
    };
#ifdef EQNN_ZLIB
    eqnn_idx *x = eqnn_idx_parse(c, packed, sizeof packed);
    CHECK(x && x->count == 3 && eqnn_idx_value(x, 2) == 9);
    eqnn_idx_close(x);
    for (size_t cut = 3; cut < sizeof packed; cut++) {
        CHECK(!eqnn_idx_parse(c, packed, cut));
        CHECK_ERROR(c, "its compressed bytes are damaged or cut off");
    }
    unsigned char twice[2 * sizeof packed]; /* two members are one text: too long */
    for (size_t i = 0; i < sizeof twice; i++) twice[i] = packed[i % sizeof packed];
    CHECK(!eqnn_idx_parse(c, twice, sizeof twice));
    CHECK_ERROR(c, "longer than its header says");
#else
    CHECK(!eqnn_idx_parse(c, packed, sizeof packed));
    CHECK_ERROR(c, "it is packed by gzip: build with -DEQNN_ZLIB");
#endif
}

/* A quarter turn moves pixels exactly, a whole one not at all; what enters is background. */
TEST(image_turns)
{
    double in[25], out[25], back[25];
    for (int i = 0; i < 25; i++) in[i] = i * i % 7;
    eqnn_image_turn(5, 5, in, 1.5707963267948966, -1, out);
    for (int r = 0; r < 5; r++)
        for (int k = 0; k < 5; k++) CHECK_NEAR(out[5 * r + k], in[5 * (4 - k) + r], 1e-13);
    eqnn_image_turn(5, 5, in, 0, -1, out);
    for (int i = 0; i < 25; i++) {
        CHECK_NEAR(out[i], in[i], 1e-13);
        in[i] = 2;
    }
    eqnn_image_turn(5, 5, in, 0.7853981633974483, -1, back);
    CHECK(back[0] < 0 && fabs(back[12] - 2) < 1e-13);
    eqnn_image_turn(0, 0, NULL, 1, 0, NULL);
}

static FILE *data_file(const char *name, char path[512])
{
    static const char *const folders[] = { "shared/data", "../shared/data", "../../shared/data" };
    for (int i = 0; i < 3; i++) {
        snprintf(path, 512, "%s/%s", folders[i], name);
        FILE *f = fopen(path, "rb");
        if (f) return f;
    }
    return NULL;
}

/* MNIST where it is there: it is packed, so that only builds with zlib read it. */
TEST(mnist)
{
    eqnn_ctx *c = test_context();
    char path[512];
    FILE *f = data_file("mnist/t10k-images-idx3-ubyte.gz", path);
    if (!f) return;
    fclose(f);
    eqnn_idx *x = eqnn_idx_open(c, path);
    if (!x) {
        CHECK_ERROR(c, "build with -DEQNN_ZLIB");
        return;
    }
    double sum = 0, turned = 0, out[784];
    CHECK(x->dims == 3 && x->shape[0] == 10000 && x->shape[1] == 28 && x->shape[2] == 28);
    for (size_t i = 0; i < x->count; i++) sum += x->data[i];
    CHECK(eqnn_images_turned(c, x, 1, 9999, 1, out));
    for (int i = 0; i < 784; i++) turned += out[i];
    double plain = 0;
    for (size_t i = 0; i < 784; i++) plain += x->data[9999 * 784 + i] / 255.0;
    test_note("mean pixel %.4f; ink of the last image %.1f, turned %.1f",
              sum / 255 / (double)x->count, plain, turned);
    CHECK(fabs(sum / 255 / (double)x->count - 0.1325) < 1e-3); /* the mean published for it */
    CHECK(fabs(turned / plain - 1) < 0.05);
    eqnn_idx_close(x);
}

/* ---- molecules ---- */

static const char methane[] =
    "5\n"
    "gdb 1\t157.7118\t157.70997\t157.70699\t0.\t13.21\t-0.3877\t0.1171\t0.5048\t35.3641\t0.044749"
    "\t-40.47893\t-40.476062\t-40.475117\t-40.498597\t6.469\t\n"
    "C\t-0.0126981359\t 1.0858041578\t 0.0080009958\t-0.535689\n"
    "H\t 0.002150416\t-0.0060313176\t 0.0019761204\t 0.133921\n"
    "H\t 1.0117308433\t 1.4637511618\t 2.1997*^-6\t 0.133922\n"
    "H\t-0.540815069\t 1.4475266138\t-0.8766437152\t 0.133923\n"
    "H\t-0.5238136345\t 1.4379326443\t 0.9063972942\t 0.133923\n"
    "1341.307\t1341.3284\t1341.365\t1562.6731\t1562.7453\t3038.3205\t3151.6034\t3151.6788\t"
    "3151.7078\n"
    "C\tC\t\n"
    "InChI=1S/CH4/h1H4\tInChI=1S/CH4/h1H4\n";

TEST(qm9_text)
{
    eqnn_ctx *c = test_context();
    static char two[2 * sizeof methane];
    snprintf(two, sizeof two, "%s%s", methane, methane);
    eqnn_molecules *m = eqnn_qm9_parse(c, two, strlen(two) - 1); /* a last line without its end */
    CHECK(m && m->count == 2 && m->atoms == 10 && m->first[1] == 5 && m->first[2] == 10);
    if (!m) return;
    CHECK(m->charge[0] == 6 && m->charge[9] == 1 && m->number[1] == 1);
    CHECK(m->pos[3 * 7 + 2] == 2.1997e-6 && m->pos[3 * 5] == -0.0126981359);
    CHECK(m->target[4] == 13.21 && m->target[15 + 14] == 6.469 && m->target[5] == -0.3877);
    double y[2], features[15 * 10];
    const char *unit;
    CHECK(eqnn_qm9_target(c, m, "U0", y, &unit));
    CHECK_TEXT(unit, "eV");
    CHECK_NEAR(y[1], (-40.47893 + 37.846772 + 4 * 0.500273) * 27.2114, 1e-12);
    CHECK(eqnn_qm9_target(c, m, "Cv", y, NULL) && fabs(y[0] - 6.469 + 5 * 2.981) < 1e-12);
    CHECK(eqnn_qm9_target(c, m, "zpve", y, &unit) && fabs(y[0] - 0.044749 * 27211.4) < 1e-9);
    static const char *const tasks[9] = { "alpha", "gap", "homo", "lumo", "mu",
                                          "G",     "H",   "r2",   "U" };
    for (int i = 0; i < 9; i++) CHECK(eqnn_qm9_target(c, m, tasks[i], y, NULL));
    CHECK(!eqnn_qm9_target(c, m, "smell", y, NULL));
    CHECK_ERROR(c, "there is no task 'smell'");
    m->target[15 + 5] = NAN;
    CHECK(!eqnn_qm9_target(c, m, "homo", y, NULL));
    CHECK_ERROR(c, "homo of molecule 1 (number 1) is not a number");
    CHECK(eqnn_charge_features(c, 10, m->charge, features));
    CHECK(features[3] == 1 && features[0] == 0 && features[15] == 1 && features[16] == 1.0 / 9);
    CHECK_NEAR(features[5], 36.0 / 81, 1e-15);
    m->charge[3] = 17;
    CHECK(!eqnn_charge_features(c, 10, m->charge, features));
    CHECK_ERROR(c, "atom 3 has charge 17");
    eqnn_molecules_free(m);
}

TEST(qm9_bad)
{
    eqnn_ctx *c = test_context();
    static char text[sizeof methane + 8];
    static const struct { const char *old, *young, *error; } t[] = {
        { "5\ngdb", "9\ngdb", "line 8: an atom is not" },
        { "5\ngdb", "0\ngdb", "out of range" },
        { "gdb 1", "gdb x", "line 2: a word stands where a number" },
        { "gdb 1", "god 1", "does not begin with gdb" },
        { "H\t 0.00", "X\t 0.00", "line 4: an atom is not H, C, N, O or F" },
        { "*^-6", "*^-x", "line 5: a word" },
        { "*^-6", "*^- ", "line 5: a word" },
        { "*^-6", "*^999", "line 5: a number is too large" },
        { "\t6.469", "\t     ", "line 2: a line ends before its numbers do" },
        { "6.469", "nan  ", "line 2: a word" }
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        strcpy(text, methane);
        char *at = strstr(text, t[i].old);
        CHECK(at != NULL);
        if (at) memcpy(at, t[i].young, strlen(t[i].young));
        CHECK(!eqnn_qm9_parse(c, text, strlen(text)));
        CHECK_ERROR(c, t[i].error);
    }
    size_t most = strlen(methane), least = most - strlen("InChI=1S/CH4/h1H4\t") * 2 + 1;
    for (size_t cut = 0; cut < least; cut++) { /* every shorter text is refused */
        CHECK(!eqnn_qm9_parse(c, methane, cut));
        CHECK_ERROR(c, "qm9: ");
    }
    eqnn_molecules *m = eqnn_qm9_parse(c, methane, most);
    CHECK(m && m->count == 1);
    eqnn_molecules_free(m);
    CHECK(!eqnn_qm9_open(c, "/nowhere/qm9.npz"));
    CHECK_ERROR(c, "cannot open '/nowhere/qm9.npz'");
}

/* An archive of two files and a folder. */
TEST(qm9_archive)
{
    eqnn_ctx *c = test_context();
    static unsigned char tar[8192];
    size_t n = strlen(methane), at = 0;
    for (int i = 0; i < 3; i++) {
        unsigned char *head = tar + at;
        snprintf((char *)head, 100, i ? "x%d.xyz" : "folder%d/", i);
        snprintf((char *)head + 124, 12, "%011o", i ? (unsigned)n : 0u);
        head[156] = i ? '0' : '5';
        memcpy(head + 257, "ustar", 5);
        if (i) memcpy(head + 512, methane, n);
        at += i ? 512 + (n + 511) / 512 * 512 : 512;
    }
    eqnn_molecules *m = eqnn_qm9_parse(c, tar, at + 1024);
    CHECK(m && m->count == 2 && m->atoms == 10 && m->first[1] == 5);
    eqnn_molecules_free(m);
    CHECK(!eqnn_qm9_parse(c, tar, at - 1024));
    CHECK_ERROR(c, "the archive is cut off");
}

static eqnn_molecules *npz_molecules(eqnn_ctx *c, const double *own, const double *charge,
                                     int64_t targets, const double *pos)
{
    static const double zeros[64] = { 0 };
    static const double index[2] = { 7, 9 };
    eqnn_array a[5];
    memset(a, 0, sizeof a);
    a[0].name = "index", a[0].dims = 1, a[0].shape[0] = 2, a[0].values = index;
    a[1].name = "n_atoms", a[1].dims = 1, a[1].shape[0] = 2, a[1].values = own;
    a[2].name = "z", a[2].dims = 2, a[2].shape[0] = 2, a[2].shape[1] = 3, a[2].values = charge;
    a[3].name = "pos", a[3].dims = 3, a[3].shape[0] = 2, a[3].shape[1] = 3, a[3].shape[2] = 3;
    a[4].name = "targets", a[4].dims = 2, a[4].shape[0] = 2, a[4].shape[1] = targets;
    a[3].values = pos ? pos : zeros;
    a[4].values = zeros;
    CHECK(eqnn_npz_save(c, "test_qm9.npz", a, 5));
    eqnn_molecules *m = eqnn_qm9_open(c, "test_qm9.npz");
    remove("test_qm9.npz");
    return m;
}

TEST(qm9_npz)
{
    eqnn_ctx *c = test_context();
    double own[2] = { 1, 3 }, charge[6] = { 6, 0, 0, 8, 1, 1 }, pos[18];
    eqnn_molecules *m = npz_molecules(c, own, charge, 15, NULL);
    CHECK(m && m->count == 2 && m->atoms == 4 && m->charge[1] == 8 && m->number[1] == 9);
    const int numbers[2] = { 7, 8 };
    CHECK(eqnn_molecules_drop(m, numbers, 2) == 1 && m->count == 1 && m->atoms == 3);
    CHECK(m->number[0] == 9 && m->charge[0] == 8 && m->charge[2] == 1 && m->first[1] == 3);
    CHECK(eqnn_molecules_drop(m, numbers, 2) == 0 && eqnn_molecules_drop(NULL, numbers, 2) == 0);
    eqnn_molecules_free(m);
    CHECK(!npz_molecules(c, own, charge, 14, NULL));
    CHECK_ERROR(c, "disagree");
    own[1] = 4;
    CHECK(!npz_molecules(c, own, charge, 15, NULL));
    CHECK_ERROR(c, "molecule 1: its number, its n_atoms, a charge or a position is out of range");
    own[1] = 3;
    static const double none[3] = { 0, 1.5, 119 };
    for (int k = 0; k < 3; k++) {
        charge[4] = none[k];
        CHECK(!npz_molecules(c, own, charge, 15, NULL));
        CHECK_ERROR(c, "molecule 1: its number, its n_atoms, a charge or a position");
    }
    charge[4] = 1;
    for (int k = 0; k < 2; k++) { /* of a molecule, or where there is no atom */
        memset(pos, 0, sizeof pos);
        pos[k ? 5 : 9] = NAN;
        m = npz_molecules(c, own, charge, 15, pos);
        CHECK((m != NULL) == k);
        if (!k) CHECK_ERROR(c, "molecule 1: its number, its n_atoms, a charge or a position");
        eqnn_molecules_free(m);
    }
    charge[4] = NAN;
    CHECK(!npz_molecules(c, own, charge, 15, NULL));
    CHECK_ERROR(c, "molecule 1");
}

/* The molecules where they are there, packed: the baseline of their mean. */
TEST(qm9)
{
    eqnn_ctx *c = test_context();
    char path[512];
    FILE *f = data_file("qm9/qm9.npz", path);
    if (!f) return;
    fclose(f);
    eqnn_molecules *m = eqnn_qm9_open(c, path);
    if (!m) {
        CHECK_ERROR(c, "build with -DEQNN_ZLIB");
        return;
    }
    CHECK(m->count == 50777 && m->atoms == 919435 && m->first[m->count] == m->atoms);
    static double y[50777];
    double mean = 0, error = 0;
    CHECK(eqnn_qm9_target(c, m, "homo", y, NULL));
    for (int i = 0; i < 40000; i++) mean += y[i] / 40000;
    for (int i = 45000; i < m->count; i++) error += fabs(y[i] - mean) / (m->count - 45000);
    test_note("homo: mean absolute error of the mean %.1f meV", 1000 * error);
    CHECK(fabs(error - 0.441) < 1e-3); /* as its README says */
    CHECK(eqnn_qm9_target(c, m, "U0", y, NULL));
    for (int i = 0; i < m->count; i++) CHECK(y[i] < 0 && y[i] > -150); /* bound, by some 80 eV */
    eqnn_molecules_free(m);
}

/* ---- configurations with energies and forces ---- */

static const char water[] =
    "3\n"
    "Lattice=\"9 0 0 0 8 0 0 1 7.5\" Properties=species:S:1:id:I:1:forces:R:3:pos:R:3 "
    "energy=-2079.861 note='a \"b\" = c' name={x=\"{1}\"} flag pbc = \"T F T\"\n"
    "O 7 0.5 -1 2e-1  0.0 0.25 1.5\n"
    "H 8 1 2 3  0.75 -0.5 1.5\n"
    "H 9 4 5 6 -0.75 -0.5 1.5\n"
    "\n"
    "1\r\n\r\nCl 1 2 3 more\r\n"
    "1\nproperties=Z:I:1:positions:R:3 REF_energy=-1 comment=\"\"\n17 1 2 3";

TEST(xyz_text)
{
    eqnn_ctx *c = test_context();
    eqnn_frames *m = eqnn_xyz_parse(c, water, strlen(water));
    CHECK(m && m->count == 3 && m->atoms == 5 && m->first[1] == 3 && m->first[3] == 5);
    if (!m) return;
    CHECK(m->charge[0] == 8 && m->charge[2] == 1 && m->charge[3] == 17 && m->charge[4] == 17);
    CHECK(m->pos[2] == 1.5 && m->pos[3] == 0.75 && m->pos[14] == 3);
    CHECK(m->force[2] == 0.2 && m->force[8] == 6 && isnan(m->force[9]) && isnan(m->force[14]));
    CHECK(m->energy[0] == -2079.861 && isnan(m->energy[1]) && m->energy[2] == -1);
    CHECK(m->cell[0] == 9 && m->cell[4] == 0 && m->cell[7] == 1 && m->cell[8] == 7.5);
    CHECK(m->cell[9] == 0 && m->cell[17] == 0);
    eqnn_frames_free(m);
    eqnn_frames_free(NULL);
}

TEST(xyz_bad)
{
    eqnn_ctx *c = test_context();
    static char text[sizeof water + 8];
    static const struct { const char *old, *young, *error; } t[] = {
        { "3\nLat", "4\nLat", "line 6, frame 1: a line ends before its columns do" },
        { "3\nLat", "0\nLat", "line 1, frame 1: a count or number is not whole" },
        { "3\nLat", "x\nLat", "line 1, frame 1: a word stands where a number is needed: 'x'" },
        { "c' name", "c  name", "line 2, frame 1: a quote or bracket is not closed" },
        { "0 1 7.5", "0 1 x.5", "line 2, frame 1: Lattice is not nine numbers" },
        { "0 1 7.5", "0 1    ", "line 2, frame 1: Lattice is not nine numbers" },
        { "=-2079", "=E2079", "line 2, frame 1: a word" },
        { "=-2079.861", "= 2e9     ", NULL },
        { "pos:R:3", "pos:R:2", "line 2, frame 1: Properties is not" },
        { "pos:R:3", "pos:R:x", "line 2, frame 1: Properties is not" },
        { "pos:R:3", "sop:R:3", "line 2, frame 1: Properties names no positions" },
        { "id:I:1:f", "pos:R:3:", "line 2, frame 1: Properties has two columns of the same "
                                  "meaning: 'pos'" },
        { "id:I:1", "Z:I:01", NULL },
        { "O 7", "O  ", "line 3, frame 1: a line ends before its numbers do" },
        { "0.25 1.5", "0.25 1 5", "line 3, frame 1: a line has more columns than Properties names: "
                                  "'5'" },
        { "T F T", "TFT  ", "line 2, frame 1: pbc is not three of T and F: 'TFT'" },
        { "T F T", "T F  ", "line 2, frame 1: pbc is not three of T and F" },
        { "T F T", "yes  ", "line 2, frame 1: pbc is not three of T and F: 'yes'" },
        { "T F T", "t,0,1", NULL },
        { "\"T F T\"", "[F F F]", NULL },
        { "pbc = \"T F T", "pbc=\"T F T F", "line 2, frame 1: pbc is not three of T and F: 'F'" },
        { "0 1 7.5", "0 1 7 5", "line 2, frame 1: Lattice is not nine numbers" },
        { "O 7", "X 7", "line 3, frame 1: an atom is no element: 'X'" },
        { "0.25", "nan ", "line 3, frame 1: a word" },
        { "H 9 4", "H 9  ", "line 5, frame 1: a line ends before its numbers do" },
        { "H 9 4 5 6", "H        ", "line 5, frame 1: a line ends before its" },
        { "1\r\n\r\n", "2\r\n\r\n", "line 10, frame 2: an atom is no element" },
        { "17 1", "ab 1", "line 12, frame 3: a word" }
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        strcpy(text, water);
        char *at = strstr(text, t[i].old);
        CHECK(at != NULL);
        if (at) memcpy(at, t[i].young, strlen(t[i].young));
        eqnn_frames *m = eqnn_xyz_parse(c, text, strlen(text));
        CHECK((m != NULL) == (t[i].error == NULL));
        if (t[i].error) CHECK_ERROR(c, t[i].error);
        eqnn_frames_free(m);
    }
    CHECK(!eqnn_xyz_parse(c, "99999999\n\nH 0 0 0\n", 18)); /* before there is room for them */
    CHECK_ERROR(c, "line 3, frame 1: the text ends before its atoms do: 1 of 99999999 are there");
    CHECK(!eqnn_xyz_parse(c, "3\n\nH 0 0 0\nH 0 0 1\n\n", 20));
    CHECK_ERROR(c, "line 4, frame 1: the text ends before its atoms do: 2 of 3 are there");
    CHECK(!eqnn_xyz_parse(c, "3", 1));
    CHECK_ERROR(c, "line 1, frame 1: the text ends before a frame's second line");
    CHECK(!eqnn_xyz_parse(c, "1\n\0\nH 0 0 0\n", 12));
    CHECK_ERROR(c, "a zero byte is no text");
    CHECK(!eqnn_xyz_parse(c, " \n", 2));
    CHECK_ERROR(c, "there is no frame");
    CHECK(!eqnn_frames_open(c, "/nowhere/a.xyz"));
    CHECK_ERROR(c, "cannot open '/nowhere/a.xyz'");
    for (size_t cut = 0; cut < strlen(water); cut++) { /* frames of what is there, or an error */
        eqnn_frames *m = eqnn_xyz_parse(c, water, cut);
        CHECK((m == NULL) == (eqnn_error(c) != NULL));
        eqnn_frames_free(m);
        eqnn_clear(c);
    }
}

TEST(elements)
{
    char text[3];
    int good = 0;
    for (int z = 1; z <= 118; z++) good += eqnn_element(eqnn_element_symbol(z, text)) == z;
    CHECK(good == 118 && eqnn_element("Cl") == 17 && eqnn_element("Og") == 118);
    CHECK(!eqnn_element("Xx") && !eqnn_element("") && !eqnn_element("C ") && !eqnn_element(NULL));
    CHECK(!eqnn_element("eL") && !eqnn_element("Hee"));
    CHECK(!eqnn_element_symbol(0, text) && !eqnn_element_symbol(119, text));
    CHECK(!eqnn_element_symbol(17, NULL));
}

/* Two frames of two atoms, as sGDML names its arrays, or as rMD17 does. */
static eqnn_frames *npz_frames(eqnn_ctx *c, int revised, const double *charge, int64_t energies,
                               const double *energy)
{
    static const double numbers[12] = { 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 2 };
    eqnn_array a[4];
    memset(a, 0, sizeof a);
    a[0].name = revised ? "coords" : "R", a[3].name = revised ? "forces" : "F";
    for (int k = 0; k < 4; k += 3) {
        a[k].dims = 3, a[k].values = numbers;
        a[k].shape[0] = a[k].shape[1] = 2, a[k].shape[2] = 3;
    }
    a[1].name = revised ? "nuclear_charges" : "z", a[1].dims = 1, a[1].shape[0] = 2;
    a[1].values = charge;
    a[2].name = revised ? "energies" : "E", a[2].dims = 2 - revised, a[2].shape[0] = energies;
    a[2].shape[1] = 1, a[2].values = energy ? energy : numbers + 4;
    CHECK(eqnn_npz_save(c, "test_frames.npz", a, 4));
    eqnn_frames *m = eqnn_frames_open(c, "test_frames.npz");
    remove("test_frames.npz");
    return m;
}

TEST(frames_npz)
{
    eqnn_ctx *c = test_context();
    double charge[2] = { 6, 8 }, energy[2] = { 1, NAN };
    for (int revised = 0; revised < 2; revised++) {
        eqnn_frames *m = npz_frames(c, revised, charge, 2, NULL);
        CHECK(m && m->count == 2 && m->atoms == 4 && m->charge[2] == 6 && m->charge[3] == 8);
        CHECK(m && m->first[2] == 4 && m->pos[5] == 1 && m->force[11] == 2 && m->energy[1] == 1);
        CHECK(m && m->cell[0] == 0);
        eqnn_frames_free(m);
        CHECK(!npz_frames(c, revised, charge, 1, NULL));
        CHECK_ERROR(c, revised ? "got [2,2,3], [2], [1] and [2,2,3]; they must be"
                               : "test_frames.npz: the shapes of R, z, E and F disagree: got "
                                 "[2,2,3], [2], [1,1] and [2,2,3]; they must be");
        CHECK(!npz_frames(c, revised, charge, 2, energy));
        CHECK_ERROR(c, revised ? "test_frames.npz: number 1 of energies is not finite"
                               : "test_frames.npz: number 1 of E is not finite");
    }
    charge[1] = 0.5;
    CHECK(!npz_frames(c, 0, charge, 2, NULL));
    CHECK_ERROR(c, "test_frames.npz: charge 1 of z is 0.5");
}

/* Files of another kind are told apart by how they begin; npz files are called by their names. */
TEST(frames_of_other_files)
{
    static const struct { const char *bytes, *error, *npz; size_t size; } t[] = {
        { "\223NUMPY\1\0v\0{'descr", "xyz: test_frames.xyz: it looks like an npy file",
          "npz: test_frames.xyz: ", 18 },
        { "\20\0\0\0\0\0\0\0{\"w\": {}}       ", "it looks like a safetensors file",
          "npz: test_frames.xyz: it looks like a safetensors file", 24 },
        { "PK\3\4" "0000000000000000000000", "npz: test_frames.xyz: its end is missing",
          "npz: test_frames.xyz: its end is missing", 26 },
        { "\37\213\10\0\0\0\0\0\0\3", "it looks like a gzip file", "it looks like a gzip", 10 },
        { "2\n\nH 0 0\0 0\n 0123456789", "line 3, frame 1: a zero byte is no text",
          "npz: test_frames.xyz: it is neither npy nor npz", 23 }
    };
    eqnn_ctx *c = test_context();
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        FILE *f = fopen("test_frames.xyz", "wb");
        CHECK(f && fwrite(t[i].bytes, 1, t[i].size, f) == t[i].size);
        if (f) fclose(f);
        CHECK(!eqnn_frames_open(c, "test_frames.xyz"));
        CHECK_ERROR(c, t[i].error);
        CHECK(!eqnn_npz_open(c, "test_frames.xyz"));
        CHECK_ERROR(c, t[i].npz);
    }
    remove("test_frames.xyz");
}

/* Where the data are there: the numbers of their READMEs. */
TEST(frames)
{
    eqnn_ctx *c = test_context();
    char path[512];
    FILE *f = data_file("rmd17_aspirin/rmd17_aspirin_train.xyz", path);
    if (!f) return;
    fclose(f);
    eqnn_frames *m = eqnn_frames_open(c, path);
    CHECK(m && m->count == 1200 && m->atoms == 1200 * 21 && m->charge[7] == 8);
    double mean = 0, square = 0;
    for (int i = 0; m && i < m->count; i++) mean += m->energy[i] / m->count;
    for (int k = 0; m && k < 3 * m->atoms; k++) square += m->force[k] * m->force[k] / m->atoms / 3;
    test_note("aspirin: mean energy %.2f eV, forces %.3f eV/A", mean, sqrt(square));
    CHECK(fabs(mean + 17617.73) < .1 && fabs(sqrt(square) - 1.274) < .02);
    eqnn_frames_free(m);
}

TEST(splits_by_number)
{
    eqnn_ctx *c = test_context();
    int items[100], again[100], first[4], counts[3] = { 60, 25, 10 }, seen[100] = { 0 };
    CHECK(eqnn_split_counts(c, 0, 100, counts, 3, items, first));
    CHECK(first[0] == 0 && first[1] == 60 && first[2] == 85 && first[3] == 95);
    for (int i = 0; i < 95; i++) CHECK(items[i] >= 0 && items[i] < 100 && !seen[items[i]]++);
    CHECK(eqnn_split_counts(c, 0, 100, counts, 3, again, first));
    CHECK(!memcmp(items, again, 95 * sizeof *items));
    CHECK(eqnn_split_counts(c, 1, 100, counts, 3, again, first));
    CHECK(memcmp(items, again, 95 * sizeof *items));
    counts[2] = 16;
    CHECK(!eqnn_split_counts(c, 0, 100, counts, 3, items, first));
    CHECK_ERROR(c, "fewer examples than the parts ask for, 101");
    counts[0] = -1;
    CHECK(!eqnn_split_counts(c, 0, 100, counts, 3, items, first));
    CHECK_ERROR(c, "split: count 1 of 3 is -1");
    CHECK(!eqnn_split_counts(c, 0, 100, NULL, 3, items, first));
    CHECK_ERROR(c, "split: 100 examples into 3 parts: counts is NULL");
    CHECK(!eqnn_split_counts(c, 0, -1, counts, 3, items, first));
    CHECK_ERROR(c, "split: -1 examples into 3 parts: needs at least 0");
    counts[0] = counts[1] = counts[2] = 0;
    CHECK(eqnn_split_counts(c, 0, 0, counts, 3, items, first) && first[3] == 0);
}

TEST_MAIN
