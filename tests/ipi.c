/* ipi.c - forces for other codes (examples/ipi.h): what goes over the line, with another program's
   part played here; and programs that serve, whose forces and virials are slopes of energies. */
#define _DEFAULT_SOURCE 1 /* sockets, which -std=c99 hides */
#include "test.h"
#include "../eqnn_data.h"
#include "../examples/ipi.h"
#ifndef _WIN32
#include <pthread.h>
#include <sys/wait.h>

static const double bohr = 0.529177210903, hartree = 27.211386245988;

/* ---- the other side ---- */

static int put(int s, const void *x, size_t bytes) { return write(s, x, bytes) == (ssize_t)bytes; }
static int word(int s, const char *text) { return put(s, text, 12); }
static int count(int s, int n) { return put(s, &(int32_t){ n }, 4); }

static int get(int s, void *x, size_t bytes)
{
    for (size_t done = 0; done < bytes;) {
        ssize_t n = read(s, (char *)x + done, bytes - done);
        if (n <= 0) return 0;
        done += (size_t)n;
    }
    return 1;
}

static int says(int s, const char *text)
{
    char x[12];
    return get(s, x, 12) && !memcmp(x, text, 12);
}

enum { ATOMS = 8 };

typedef struct answer { double energy, force[3 * ATOMS], virial[9]; } answer;

/* A frame, in atomic units; the cell's vectors are the columns of h. */
static int ask(int s, const double h[9], int n, const double *x, answer *a)
{
    static const double inverse[9];
    int32_t atoms = 0, more = 0;
    char text[100];
    return word(s, "STATUS      ") && says(s, "READY       ") && word(s, "POSDATA     ") &&
           put(s, h, 72) && put(s, inverse, 72) && count(s, n) &&
           put(s, x, 24 * (size_t)n) && word(s, "STATUS      ") && says(s, "HAVEDATA    ") &&
           word(s, "GETFORCE    ") && says(s, "FORCEREADY  ") && get(s, &a->energy, 8) &&
           get(s, &atoms, 4) && atoms == n && get(s, a->force, 24 * (size_t)n) &&
           get(s, a->virial, 72) && get(s, &more, 4) && more > 0 && more < 100 &&
           get(s, text, (size_t)more);
}

/* ---- our side, with forces that are easy to know ---- */

static void easy(eqnn_ctx *c, ipi_frame *f, void *user)
{
    (void)c;
    *(int *)user += 1;
    f->energy = f->cell[1] + 10 * f->cell[3];
    for (int k = 0; k < 3 * f->atoms; k++) f->force[k] = -2 * f->x[k];
    for (int k = 0; k < 9; k++) f->virial[k] = k;
}

typedef struct sides { int here, there, good; } sides;

static int64_t talk(eqnn_ctx *c, void *(*other)(void *), sides *s, int *asked)
{
    int pair[2];
    pthread_t thread;
    ipi_line line;
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair)) return -1;
    s->here = pair[0], s->there = pair[1];
    s->good = 0;
    memset(&line, 0, sizeof line);
    line.c = c;
    line.socket = pair[0];
    *asked = 0;
    pthread_create(&thread, NULL, other, s);
    int64_t frames = ipi_talk(&line, easy, asked);
    close(pair[0]);
    pthread_join(thread, NULL);
    return frames;
}

static void *two_frames(void *user)
{
    sides *s = user;
    const double h[9] = { 1, 2, 3, 4, 5, 6, 7, 8, 9 };
    double x[6] = { .1, .2, .3, -1, -2, -3 };
    answer a;
    int good = ask(s->there, h, 2, x, &a);
    for (int k = 0; k < 6; k++)
        good = good && fabs(a.force[k] + 2 * x[k] * bohr * bohr / hartree) < 1e-12;
    /* the first vector is 1, 4, 7, and the second begins with 2 */
    good = good && fabs(a.energy - (4 + 10 * 2) * bohr / hartree) < 1e-12;
    for (int k = 0; k < 9; k++)
        good = good && fabs(a.virial[3 * (k % 3) + k / 3] - k / hartree) < 1e-12;
    good = good && word(s->there, "INIT        ") && count(s->there, 3) && count(s->there, 5) &&
           put(s->there, "hello", 5);
    s->good = good && ask(s->there, h, 1, x, &a) && word(s->there, "EXIT        ");
    close(s->there);
    return NULL;
}

TEST(frames_and_units)
{
    eqnn_ctx *c = test_context();
    sides s;
    int asked;
    CHECK(talk(c, two_frames, &s, &asked) == 2 && asked == 2);
    CHECK(s.good);
    CHECK_OK(c);
}

static void *hangs_up(void *user)
{
    sides *s = user;
    const double h[9] = { 1 };
    s->good = word(s->there, "POSDATA     ") && put(s->there, h, 72);
    close(s->there);
    return NULL;
}

static void *nonsense(void *user)
{
    sides *s = user;
    s->good = word(s->there, "HELLO       ");
    shutdown(s->there, SHUT_WR);
    char x;
    while (read(s->there, &x, 1) > 0) { }
    close(s->there);
    return NULL;
}

static void *too_many(void *user)
{
    sides *s = user;
    const double zero[18] = { 0 };
    s->good = word(s->there, "POSDATA     ") && put(s->there, zero, 144) && count(s->there, -5);
    close(s->there);
    return NULL;
}

TEST(what_goes_wrong)
{
    eqnn_ctx *c = test_context();
    sides s;
    int asked;
    CHECK(talk(c, hangs_up, &s, &asked) == 0 && asked == 0 && s.good);
    CHECK_OK(c);
    talk(c, nonsense, &s, &asked);
    CHECK_ERROR(c, "\"HELLO\" was not expected");
    talk(c, too_many, &s, &asked);
    CHECK_ERROR(c, "-5 atoms");
    CHECK(ipi_call_local("unix:nobody listens here") < 0 && ipi_call_local("/no/such/path") < 0);
    CHECK(ipi_call_host("no port") < 0 && ipi_call_host("127.0.0.1:1") < 0);
}

/* ---- a program's ---- */

/* Listens at a path, starts the program and waits for its call. -1: in vain. */
static int start(char *const *command, const char *path, pid_t *child)
{
    struct sockaddr_un at;
    struct timeval patience = { 100, 0 };
    int s = socket(AF_UNIX, SOCK_STREAM, 0);
    memset(&at, 0, sizeof at);
    at.sun_family = AF_UNIX;
    snprintf(at.sun_path, sizeof at.sun_path, "%s", path);
    unlink(path);
    if (s < 0 || bind(s, (struct sockaddr *)&at, sizeof at) || listen(s, 1)) return -1;
    setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    fflush(stdout); /* or the child would print it again */
    if ((*child = fork()) == 0) {
        if (freopen("/dev/null", "w", stdout) && dup2(1, 2) >= 0) execv(command[0], command);
        _exit(1);
    }
    int line = accept(s, NULL, NULL);
    close(s);
    return line;
}

/* The energy when everything is strained by the symmetric part of e_ab = t. */
static double strained(int s, const double *h, int n, const double *x, int a, int b, double t)
{
    double D[9] = { 1, 0, 0, 0, 1, 0, 0, 0, 1 }, g[9] = { 0 }, y[3 * ATOMS] = { 0 };
    answer r = { .energy = NAN };
    D[3 * a + b] += t / 2;
    D[3 * b + a] += t / 2;
    for (int k = 0; k < 9; k++)
        for (int m = 0; m < 3; m++) g[k] += D[3 * (k / 3) + m] * h[3 * m + k % 3];
    for (int k = 0; k < 3 * n; k++)
        for (int m = 0; m < 3; m++) y[k] += D[3 * (k % 3) + m] * x[3 * (k / 3) + m];
    return ask(s, g, n, y, &r) ? r.energy : NAN;
}

/* Forces and virial of what is at the other end beside differences of its energies. */
static void check_slopes(int s, const double *h, int n, double *x)
{
    const double step = 1e-2, t = 2e-3;
    answer a, up, down;
    if (!CHECK(ask(s, h, n, x, &a))) return;
    for (int k = 0; k < 3 * n; k += 5) {
        double old = x[k];
        x[k] = old + step;
        CHECK(ask(s, h, n, x, &up));
        x[k] = old - step;
        CHECK(ask(s, h, n, x, &down));
        x[k] = old;
        CHECK_NEAR(1e3 * a.force[k], -1e3 * (up.energy - down.energy) / (2 * step), 2e-2);
    }
    for (int k = 0; k < 9; k++) {
        int p = k / 3, q = k % 3;
        double rise = strained(s, h, n, x, p, q, t) - strained(s, h, n, x, p, q, -t);
        CHECK_NEAR(1e2 * a.virial[3 * q + p], -1e2 * rise / (2 * t), 2e-2);
    }
}

/* The program of $EXAMPLES with these arguments, the first of which is to hold its name and the
   last, which is NULL, is to come behind --serve and a path. */
static void check_program(const char *name, char **arguments, const double *h, int n, double *x)
{
    const char *folder = getenv("EXAMPLES");
    char program[200], path[100];
    pid_t child = 0;
    int status = 1, last = 0;
    snprintf(program, sizeof program, "%.100s/%s", folder ? folder : "", name);
    snprintf(path, sizeof path, "%.70s/ipi_%d", folder ? folder : "", (int)getpid());
    if (!folder || access(program, X_OK)) {
        test_note("skipped: no $EXAMPLES/%s", name);
        return;
    }
    while (arguments[last]) last++;
    arguments[0] = program;
    arguments[last] = path;
    int s = start(arguments, path, &child);
    if (CHECK(s >= 0)) {
        check_slopes(s, h, n, x);
        CHECK(word(s, "EXIT        "));
        close(s);
    }
    if (child > 0) waitpid(child, &status, 0);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    unlink(path);
}

/* Eight atoms in a cell that is no box, in bohr. */
TEST(silicon_serves_slopes)
{
    static const int quarter[ATOMS][3] = { { 0, 0, 0 }, { 0, 2, 2 }, { 2, 0, 2 }, { 2, 2, 0 },
                                           { 1, 1, 1 }, { 1, 3, 3 }, { 3, 1, 3 }, { 3, 3, 1 } };
    static const double h[9] = { 10.3, .4, -.2, 0, 10.1, .3, .5, 0, 10.4 };
    char *arguments[] = { "", "--epochs", "2", "--n-train", "4", "--n-valid", "2", "--n-test", "2",
                          "--hidden", "4x0e+2x1o", "--out", "", "--threads", "1", "--serve", NULL,
                          NULL };
    double x[3 * ATOMS];
    for (int k = 0; k < 3 * ATOMS; k++) {
        x[k] = .3 * sin(5. * (k / 3) + k % 3);
        for (int a = 0; a < 3; a++) x[k] += h[3 * (k % 3) + a] * quarter[k / 3][a] / 4;
    }
    check_program("silicon", arguments, h, ATOMS, x);
}

/* The chain of six atoms of --demo; it has no cell. */
TEST(md17_serves_slopes)
{
    static const double h[9] = { 0 };
    char *arguments[] = { "", "--demo", "--model", "gated", "--n-train", "8", "--n-valid", "2",
                          "--n-test", "4", "--epochs", "1", "--widths", "4,2", "--md", "0", "--out",
                          "", "--threads", "1", "--serve", NULL, NULL };
    double x[3 * 6];
    for (int i = 0; i < 6; i++)
        x[3 * i] = 2.5 * i, x[3 * i + 1] = i % 2 ? .9 : -.7, x[3 * i + 2] = .4 * sin(i);
    check_program("md17", arguments, h, 6, x);
}
#endif

TEST_MAIN
