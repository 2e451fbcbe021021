/* ipi.h - forces for programs that move atoms: the socket protocol of i-PI

   i-PI (Kapil et al., Comput. Phys. Commun. 236, 214 (2019)), ASE (SocketIOCalculator) and others
   move atoms and ask somebody else for forces. They listen at an address; who knows forces calls
   there, and is asked:

      STATUS                  he says NEEDINIT, READY for places, or HAVEDATA, that is forces
      INIT                    then a number, the length of a text, the text; nothing here needs it
      POSDATA                 then the cell, its inverse, how many atoms, their places
      GETFORCE                he says FORCEREADY, then the energy, how many atoms, the forces on
                              them, the virial, the length of a text, the text
      EXIT                    the end

   Words are 12 characters, filled with blanks; counts are ints of 32 bits, all else doubles, in
   this machine's order of bytes. On the wire everything is in atomic units and the cell's vectors
   are columns; in ipi_frame it is eV and angstrom, and they are rows.

   A program whose network is trained needs a function that computes a frame, and ipi_serve. It
   includes this file after eqnn_data.h, and, as -std=c99 hides sockets, defines _DEFAULT_SOURCE
   before any other. */
#ifndef IPI_H
#define IPI_H
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifndef _WIN32
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>
#endif

enum { IPI_WORD = 12, IPI_PATIENCE = 20, IPI_MOST_ATOMS = 10000000 };

static const double ipi_length = 0.529177210903, ipi_energy = 27.211386245988; /* CODATA 2018 */

typedef struct ipi_frame {
    int atoms;
    double cell[9];          /* a vector a row, angstrom; all zero along what is not periodic     */
    double *x;               /* [atoms][3] angstrom                                               */
    /* to be given */
    double energy, *force;   /* eV; [atoms][3] eV/angstrom                                        */
    double virial[9];        /* -dE/dstrain, eV: the stress is -virial / volume                   */
} ipi_frame;

/* Computes a frame; what is wrong is the context's error. */
typedef void ipi_field(eqnn_ctx *c, ipi_frame *f, void *user);

#ifndef _WIN32

typedef struct ipi_line {
    eqnn_ctx *c;
    int socket, up;          /* up: until the other side hangs up, or an error                    */
    ipi_frame frame;
    int room;                /* atoms that there is memory for                                    */
    char *reply;
} ipi_line;

/* --- bytes --- */

/* n bytes went over the line: how many, or 0 when it is to be tried again. A call that waits
   returns every second (SO_RCVTIMEO), so that Ctrl-C is heard. */
static size_t ipi_moved(ipi_line *line, ssize_t n)
{
    int again = n < 0 && (errno == EINTR || errno == EAGAIN || errno == EWOULDBLOCK);
    if (n < 0 && !again) eqnn_fail(line->c, "ipi: %s", strerror(errno));
    if (again ? eqnn_interrupted() : n <= 0) line->up = 0;
    return n > 0 ? (size_t)n : 0;
}

/* What does not arrive is 0. Who sends in small pieces waits for a receipt of the first, which TCP
   puts off by 40 ms unless told to write it at once. */
static void ipi_receive(ipi_line *line, void *to, size_t bytes)
{
    size_t done = 0;
    while (line->up && done < bytes) {
#ifdef TCP_QUICKACK
        int on = 1;
        setsockopt(line->socket, IPPROTO_TCP, TCP_QUICKACK, &on, sizeof on);
#endif
        done += ipi_moved(line, recv(line->socket, (char *)to + done, bytes - done, 0));
    }
    memset((char *)to + done, 0, bytes - done);
}

static void ipi_send(ipi_line *line, const void *from, size_t bytes)
{
    size_t done = 0;
    while (line->up && done < bytes)
        done += ipi_moved(line, send(line->socket, (const char *)from + done, bytes - done, 0));
}

static void ipi_say(ipi_line *line, const char *word)
{
    char text[IPI_WORD + 1];
    snprintf(text, sizeof text, "%-12s", word);
    ipi_send(line, text, IPI_WORD);
}

static int32_t ipi_count(ipi_line *line)
{
    int32_t n = 0;
    ipi_receive(line, &n, sizeof n);
    return n;
}

/* --- what may be asked --- */

/* The text that comes with INIT is read and forgotten. */
static void ipi_init(ipi_line *line)
{
    char text[256];
    ipi_count(line); /* of the replica */
    for (int32_t left = ipi_count(line); line->up && left > 0;) {
        int32_t n = left < (int32_t)sizeof text ? left : (int32_t)sizeof text;
        ipi_receive(line, text, (size_t)n);
        left -= n;
    }
}

static void ipi_forget(ipi_line *line)
{
    free(line->frame.x), free(line->reply);
    memset(&line->frame, 0, sizeof line->frame);
    line->reply = NULL;
    line->room = 0;
}

static int ipi_room(ipi_line *line, int atoms)
{
    ipi_frame *f = &line->frame;
    const size_t n = 3 * (size_t)atoms * sizeof *f->x;
    if (atoms < 0 || atoms > IPI_MOST_ATOMS) eqnn_fail(line->c, "ipi: %d atoms", atoms);
    if (eqnn_error(line->c)) return 0;
    if (!line->reply || atoms > line->room) {
        ipi_forget(line);
        f->x = malloc(2 * n + 1);
        line->reply = malloc(n + 128); /* what else is in it has 101 bytes */
        line->room = atoms;
        if (!f->x || !line->reply) eqnn_fail(line->c, "ipi: no memory for %d atoms", atoms);
        if (eqnn_error(line->c)) return 0;
        f->force = f->x + 3 * (size_t)atoms;
    }
    f->atoms = atoms;
    return 1;
}

/* The cell, whose inverse we do not need, and the places. */
static int ipi_places(ipi_line *line)
{
    double h[18];
    ipi_frame *f = &line->frame;
    ipi_receive(line, h, sizeof h);
    if (!ipi_room(line, ipi_count(line)) || !line->up) return 0;
    size_t n = 3 * (size_t)f->atoms;
    for (int k = 0; k < 9; k++) f->cell[k] = ipi_length * h[3 * (k % 3) + k / 3];
    ipi_receive(line, f->x, n * sizeof *f->x);
    for (size_t k = 0; k < n; k++) f->x[k] *= ipi_length;
    return line->up;
}

static char *ipi_put(char *to, const void *from, size_t bytes)
{
    memcpy(to, from, bytes);
    return to + bytes;
}

/* In one piece: small ones would wait for each other's receipts. */
static void ipi_answer(ipi_line *line)
{
    ipi_frame *f = &line->frame;
    size_t n = 3 * (size_t)f->atoms;
    double energy = f->energy / ipi_energy, virial[9];
    int32_t atoms = f->atoms, text = 1;
    char *p = ipi_put(line->reply, "FORCEREADY  ", IPI_WORD);
    for (size_t k = 0; k < n; k++) f->force[k] *= ipi_length / ipi_energy;
    for (int k = 0; k < 9; k++) virial[k] = f->virial[3 * (k % 3) + k / 3] / ipi_energy;
    p = ipi_put(p, &energy, sizeof energy);
    p = ipi_put(p, &atoms, sizeof atoms);
    p = ipi_put(p, f->force, n * sizeof *f->force);
    p = ipi_put(p, virial, sizeof virial);
    p = ipi_put(p, &text, sizeof text);
    p = ipi_put(p, " ", 1); /* some have trouble with a text of no characters */
    ipi_send(line, line->reply, (size_t)(p - line->reply));
}

/* Until EXIT, or the other side hangs up: how many frames were computed. */
static int64_t ipi_talk(ipi_line *line, ipi_field *field, void *user)
{
    eqnn_ctx *c = line->c;
    int64_t frames = 0;
    int ready = 0; /* the frame is computed and was not asked for yet */
    line->up = 1;
    while (line->up && !eqnn_error(c) && !eqnn_interrupted()) {
        char word[IPI_WORD + 1] = "";
        ipi_receive(line, word, IPI_WORD);
        word[strcspn(word, " ")] = 0;
        if (!line->up || !strcmp(word, "EXIT")) break;
        if (!strcmp(word, "STATUS")) {
            ipi_say(line, ready ? "HAVEDATA" : "READY");
        } else if (!strcmp(word, "INIT")) {
            ipi_init(line);
        } else if (!strcmp(word, "POSDATA")) {
            if (ipi_places(line)) field(c, &line->frame, user), frames++;
            ready = 1;
        } else if (!strcmp(word, "GETFORCE") && ready) {
            ipi_answer(line);
            ready = 0;
        } else {
            eqnn_fail(c, "ipi: \"%.12s\" was not expected", word);
        }
    }
    ipi_forget(line);
    return frames;
}

/* --- calling --- */

/* A local address: unix:NAME is /tmp/ipi_NAME, as i-PI and ASE have it; a path is itself. -1:
   nobody answers. */
static int ipi_call_local(const char *address)
{
    struct sockaddr_un to;
    memset(&to, 0, sizeof to);
    to.sun_family = AF_UNIX;
    int n = !strncmp(address, "unix:", 5)
                ? snprintf(to.sun_path, sizeof to.sun_path, "/tmp/ipi_%s", address + 5)
                : snprintf(to.sun_path, sizeof to.sun_path, "%s", address);
    int s = n < (int)sizeof to.sun_path ? socket(AF_UNIX, SOCK_STREAM, 0) : -1;
    if (s < 0 || !connect(s, (struct sockaddr *)&to, sizeof to)) return s;
    close(s);
    return -1;
}

/* HOST:PORT, either number or name. -1: nobody answers. */
static int ipi_call_host(const char *address)
{
    char host[256];
    struct addrinfo hints, *list = NULL, *at;
    const char *port = strrchr(address, ':');
    int s = -1;
    if (!port || (size_t)(port - address) >= sizeof host) return -1;
    snprintf(host, sizeof host, "%.*s", (int)(port - address), address);
    memset(&hints, 0, sizeof hints);
    hints.ai_socktype = SOCK_STREAM;
    if (getaddrinfo(*host ? host : "localhost", port + 1, &hints, &list)) return -1;
    for (at = list; at && s < 0; at = at->ai_next) {
        s = socket(at->ai_family, at->ai_socktype, at->ai_protocol);
        if (s < 0 || !connect(s, at->ai_addr, at->ai_addrlen)) continue;
        close(s);
        s = -1;
    }
    freeaddrinfo(list);
    return s;
}

/* Calls whoever listens at "HOST:PORT", "unix:NAME" or a path, for IPI_PATIENCE seconds, and
   computes what is asked for; what is wrong is the context's error. */
static inline void ipi_serve(eqnn_ctx *c, const char *address, ipi_field *field, void *user)
{
    struct timeval second = { 1, 0 };
    ipi_line line;
    memset(&line, 0, sizeof line);
    line.c = c;
    line.socket = -1;
    signal(SIGPIPE, SIG_IGN); /* that the other side hangs up is no reason to die */
    for (int i = 0; i < IPI_PATIENCE && line.socket < 0 && !eqnn_interrupted(); i++) {
        if (i) sleep(1);
        line.socket = strchr(address, '/') || !strncmp(address, "unix:", 5)
                          ? ipi_call_local(address) : ipi_call_host(address);
    }
    if (line.socket < 0 && !eqnn_interrupted())
        eqnn_fail(c, "ipi: nobody listens at \"%.200s\" (HOST:PORT, unix:NAME or a path)", address);
    if (line.socket < 0) return;
    printf("Connected to %s.\n", address);
    fflush(stdout);
    setsockopt(line.socket, SOL_SOCKET, SO_RCVTIMEO, &second, sizeof second);
    int64_t frames = ipi_talk(&line, field, user);
    close(line.socket);
    printf("%lld frames were asked for.\n", (long long)frames);
}

#else

static inline void ipi_serve(eqnn_ctx *c, const char *address, ipi_field *field, void *user)
{
    (void)address, (void)field, (void)user;
    eqnn_fail(c, "ipi: not on Windows");
}

#endif
#endif
