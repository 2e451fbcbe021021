/* files.c - safetensors: reading, writing, saving, loading, resuming */
#define _XOPEN_SOURCE 700 /* links, pipes */
#include "test.h"
#if defined(__unix__)
#include <sys/stat.h>
#include <unistd.h>
#endif

static char path_store[8][256];

/* A path in the folder for temporary files; it is removed first. */
static const char *temporary(int i, const char *name)
{
    const char *folder = getenv("TMPDIR");
    snprintf(path_store[i], sizeof path_store[i], "%.150s/eqnn_test_f%d_%p_%s",
             folder ? folder : "/tmp", (int)sizeof(eqnn_real), (void *)&test_first, name);
    remove(path_store[i]);
    return path_store[i];
}

static unsigned char *slurp(const char *path, size_t *n)
{
    unsigned char *bytes = (unsigned char *)malloc(1 << 20);
    FILE *f = fopen(path, "rb");
    *n = f && bytes ? fread(bytes, 1, 1 << 20, f) : 0;
    if (f) fclose(f);
    return bytes;
}

static int same_file(const char *a, const char *b)
{
    size_t n, m;
    unsigned char *p = slurp(a, &n), *q = slurp(b, &m);
    int same = n > 0 && n == m && !memcmp(p, q, n);
    free(p);
    free(q);
    return same;
}

static int exists(const char *path)
{
    FILE *f = fopen(path, "rb");
    if (f) fclose(f);
    return f != NULL;
}

/* ---- reading -------------------------------------------------------------------------------- */

static unsigned char made[4096];

/* A file of that JSON (n characters; 0: up to its end) and size bytes 1, 2, 3, ... */
static size_t make_file(const char *json, size_t n, size_t size)
{
    if (!n) n = strlen(json);
    for (int k = 0; k < 8; k++) made[k] = (unsigned char)((uint64_t)n >> (8 * k));
    memcpy(made + 8, json, n);
    for (size_t i = 0; i < size; i++) made[8 + n + i] = (unsigned char)(i + 1);
    return 8 + n + size;
}

TEST(reads)
{
    eqnn_ctx *c = test_context();
    const char *json =
        " {\"__metadata__\":{\"k\\u00e9y\":\"a\\n\\\"b\\\" \\ud83d\\ude00\",\"\":\"\"},"
        "\"b\" : {\"shape\":[2,3],\"data_offsets\":[0,6],\"dtype\":\"U8\"},\r\n\t"
        "\"empty\":{\"dtype\":\"F64\",\"shape\":[0,7],\"data_offsets\":[6,6]},"
        "\"a.x\":{\"dtype\":\"I16\",\"shape\":[],\"data_offsets\":[6,8]}}  ";
    eqnn_file *f = eqnn_file_parse(c, made, make_file(json + 1, 0, 8));
    CHECK_OK(c);
    CHECK(eqnn_file_count(f) == 3 && eqnn_file_metas(f) == 2);
    CHECK_TEXT(eqnn_file_meta(f, "k\xc3\xa9y"), "a\n\"b\" \xf0\x9f\x98\x80");
    CHECK_TEXT(eqnn_file_meta(f, ""), "");
    CHECK(!eqnn_file_meta(f, "other") && !eqnn_file_find(f, "c") && !eqnn_file_entry(f, 3));
    const eqnn_entry *b = eqnn_file_find(f, "b"), *a = eqnn_file_find(f, "a.x"),
                     *e = eqnn_file_find(f, "empty");
    double out[6] = { 0 };
    int64_t whole[6] = { 0 };
    CHECK(b && a && e && b->dims == 2 && b->shape[1] == 3 && b->count == 6 && a->dims == 0 &&
          e->count == 0);
    CHECK(eqnn_file_read(f, b, out) && eqnn_file_read(f, e, NULL));
    CHECK_NEAR(out[5], 6, 0);
    CHECK(eqnn_file_read_int(f, a, whole) && whole[0] == 0x0807);
    CHECK(eqnn_file_entry(f, 0) == b);
    CHECK_TEXT(a->dtype, "I16");
    static unsigned char small[200];
    size_t size = make_file("{}", 0, 0);
    memcpy(small, made, size);
    eqnn_file *g = eqnn_file_parse(c, small, size);
    CHECK(g && eqnn_file_count(g) == 0);
    CHECK(!eqnn_file_read(g, b, out));
    CHECK_ERROR(c, "the entry is another file's");
    CHECK(!eqnn_file_read_int(f, NULL, whole));
    CHECK_ERROR(c, "the entry is NULL");
    eqnn_file_close(g);
    eqnn_file_close(f);
    CHECK(!eqnn_file_parse(c, made, make_file(json, 0, 8)));
    CHECK_ERROR(c, "does not begin with '{'");
    CHECK(!eqnn_file_find(NULL, "x") && !eqnn_file_count(NULL));
    eqnn_file_close(NULL);
}

TEST(types)
{
    eqnn_ctx *c = test_context();
    const struct {
        const char *dtype;
        unsigned char bytes[8];
        int size;
        double value;
        int integer;
    } t[] = {
        { "F64", { 0, 0, 0, 0, 0, 0, 0xf8, 0xbf }, 8, -1.5, 0 },
        { "F32", { 0, 0, 0xc0, 0x3f }, 4, 1.5, 0 },
        { "F16", { 0, 0xbe }, 2, -1.5, 0 },
        { "F16", { 1, 0 }, 2, 5.9604644775390625e-8, 0 },
        { "F16", { 0, 0x7c }, 2, (double)INFINITY, 0 },
        { "BF16", { 0xc0, 0x3f }, 2, 1.5, 0 },
        { "F16", { 0xff, 0x7b }, 2, 65504, 0 },
        { "F16", { 0xff, 0x03 }, 2, 1023 / 16777216.0, 0 },
        { "I64", { 0, 0, 0, 0, 0, 0, 0, 0x80 }, 8, -9223372036854775808.0, 1 },
        { "I32", { 0xfe, 0xff, 0xff, 0xff }, 4, -2, 1 },
        { "I16", { 0, 0x80 }, 2, -32768, 1 },
        { "I8", { 0xff }, 1, -1, 1 },
        { "I8", { 0x7f }, 1, 127, 1 },
        { "U8", { 200 }, 1, 200, 1 },
        { "U16", { 0xff, 0xff }, 2, 65535, 1 },
        { "U32", { 0, 0, 0, 0x80 }, 4, 2147483648.0, 1 },
        { "U64", { 5 }, 8, 5, 1 },
        { "BOOL", { 1 }, 1, 1, 1 },
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        char json[200];
        double x = 0;
        int64_t n = 0;
        snprintf(json, sizeof json,
                 "{\"x\":{\"dtype\":\"%s\",\"shape\":[1],\"data_offsets\":[0,%d]}}", t[i].dtype,
                 t[i].size);
        size_t size = make_file(json, 0, 0);
        memcpy(made + size, t[i].bytes, (size_t)t[i].size);
        eqnn_file *f = eqnn_file_parse(c, made, size + (size_t)t[i].size);
        CHECK_OK(c);
        CHECK(eqnn_file_read(f, eqnn_file_find(f, "x"), &x));
        CHECK(x >= t[i].value && x <= t[i].value);
        CHECK(eqnn_file_read_int(f, eqnn_file_find(f, "x"), &n) == t[i].integer);
        if (!t[i].integer) CHECK_ERROR(c, "numbers, not integers");
        else CHECK((double)n >= t[i].value && (double)n <= t[i].value);
        eqnn_file_close(f);
    }
}

TEST(refuses)
{
    eqnn_ctx *c = test_context();
#define ENTRY(type, shape, offsets)                                                                \
    "{\"x\":{\"dtype\":\"" type "\",\"shape\":[" shape "],\"data_offsets\":[" offsets "]}}"
    static const struct { const char *json, *sentence;
    } t[] = {
        { "", "begin" },
        { "[]", "begin" },
        { "{", "missing" },
        { "{}x", "something after" },
        { "{} {", "something after" },
        { "{\"x\"", "':'" },
        { "{\"x\":1}", "'{'" },
        { "{\"x\":{}}", "without dtype" },
        { "{,}", "missing" },
        { "{\"x\":{\"dtype\":\"U8\"}}", "without" },
        { "{\"x\":{\"a\":{\"b\":[[[[1]]]]}}}", "unknown key" },
        { "{\"x\":{\"dtype\":\"U8\",\"dtype\":\"U8\"}}", "twice" },
        { "{x:1}", "'\"'" },
        { "{\"x", "without end" },
        { ENTRY("U8", "8", "0,8,9"), "more than 2" },
        { ENTRY("U8", "8", "0"), "fewer" },
        { ENTRY("U8", "8", ""), "fewer" },
        { ENTRY("U8", "8,", "0,8"), "not a whole" },
        { ENTRY("U8", "-8", "0,8"), "not a whole" },
        { ENTRY("U8", "8.0", "0,8"), "','" },
        { ENTRY("U8", "1e1", "0,8"), "','" },
        { ENTRY("U8", "08", "0,8"), "whole" },
        { ENTRY("U8", "\"8\"", "0,8"), "whole" },
        { ENTRY("U8", "[8]", "0,8"), "whole" },
        { ENTRY("U8", "18446744073709551624", "0,8"), "beyond" },
        { ENTRY("U8", "8", "0,99999999999999999999"), "beyond" },
        { ENTRY("U8", "4294967296,4294967296", "0,8"), "overflows" },
        { ENTRY("F64", "2305843009213693953", "0,8"), "overflows" },
        { ENTRY("U8", "1,1,1,1,1,1,1,1,8", "0,8"), "more than 8 sizes" },
        { ENTRY("U8", "7", "0,8"), "7 numbers" },
        { ENTRY("U16", "8", "0,8"), "8 numbers of type U16 in 8 bytes" },
        { ENTRY("U8", "9", "0,9"), "lies at" },
        { ENTRY("U8", "0", "8,0"), "lies at" },
        { ENTRY("U8", "7", "1,8"), "hole" },
        { ENTRY("U8", "7", "0,7"), "after the last" },
        { ENTRY("F8_E4M3", "8", "0,8"), "type F8_E4M3, which is not read" },
        { ENTRY("", "8", "0,8"), "not read" },
        { "{\"x\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},\"y\":{\"dtype\":\"U8\","
          "\"shape\":[5],"
          "\"data_offsets\":[3,8]}}",
          "overlap" },
        { "{\"x\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},\"x\":{\"dtype\":\"U8\","
          "\"shape\":[4],"
          "\"data_offsets\":[4,8]}}",
          "x is there twice" },
        { "{\"__metadata__\":{\"a\":1}}", "'\"'" },
        { "{\"__metadata__\":{\"a\":\"\",\"a\":\"\"}}", "twice" },
        { "{\"__metadata__\":{},\"__metadata__\":{}}", "second time" },
        { "{\"__metadata__\":[]}", "'{'" },
        { "{\"\\x\":{}}", "escape" },
        { "{\"\\u12g4\":{}}", "hexadecimal" },
        { "{\"\\ud800\":{}}", "surrogate" },
        { "{\"\\ud800\\u0041\":{}}", "surrogate" },
        { "{\"\\udc00\":{}}", "surrogate" },
        { "{\"\\u0000\":{}}", "zero" },
        { "{\"\x80\":{}}", "UTF-8" },
        { "{\"\xc0\xaf\":{}}", "UTF-8" },
        { "{\"\xed\xa0\x80\":{}}", "UTF-8" },
        { "{\"\xf5\x80\x80\x80\":{}}", "UTF-8" },
        { "{\"a\nb\":{}}", "control" },
        { "{\"\\", "without end" },
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        int covered = strstr(t[i].json, "data_offsets") != NULL;
        CHECK(!eqnn_file_parse(c, made, make_file(t[i].json, 0, covered || i == 0 ? 8 : 0)));
        CHECK_ERROR(c, t[i].sentence);
    }
    size_t size = make_file(ENTRY("U8", "8", "0,8"), 0, 8);
    for (size_t n = 0; n < size; n++) { /* cut off anywhere */
        CHECK(!eqnn_file_parse(c, made, n));
        CHECK_ERROR(c, "file: in memory: ");
    }
    memset(made, 0xff, 8);
    CHECK(!eqnn_file_parse(c, made, size));
    CHECK_ERROR(c, "truncated, or no safetensors file");
    CHECK(!eqnn_file_open(c, "/nowhere/at/all"));
    CHECK_ERROR(c, "/nowhere/at/all: ");
    CHECK(!eqnn_file_open(c, "/tmp"));
    CHECK_ERROR(c, "file: /tmp");
    CHECK(!eqnn_file_open(c, NULL));
    CHECK_ERROR(c, "no path");
}

/* ---- writing -------------------------------------------------------------------------------- */

TEST(writes)
{
    eqnn_ctx *c = test_context();
    const char *path = temporary(0, "write"), *names[2] = { "x", "q\"\\\n\xc3\xa9" };
    eqnn_tensor *x[2];
    x[0] = test_normal(c, 3, 4);
    x[1] = eqnn_zeros(c, 0, 7);
    const char *keys[2] = { "note", "k" }, *texts[2] = { "line\nline \"x\"", "" };
    double out[12];
    CHECK(eqnn_file_write(c, path, names, x, 2, keys, texts, 2));
    eqnn_file *f = eqnn_file_open(c, path);
    const eqnn_entry *e = eqnn_file_find(f, "x"), *q = eqnn_file_find(f, names[1]);
    CHECK(e && q && e->shape[0] == 3 && e->shape[1] == 4 && q->shape[0] == 0 && q->shape[1] == 7);
    CHECK(eqnn_file_read(f, e, out));
    for (int i = 0; i < 12; i++) CHECK_NEAR(out[i], eqnn_at(x[0], i / 4, i % 4), 0);
    CHECK_TEXT(eqnn_file_meta(f, "note"), texts[0]);
    eqnn_file_close(f);
    names[1] = "x";
    CHECK(!eqnn_file_write(c, path, names, x, 2, NULL, NULL, 0));
    CHECK_ERROR(c, "x is there twice");
    names[1] = "\xff";
    CHECK(!eqnn_file_write(c, path, names, x, 2, NULL, NULL, 0));
    CHECK_ERROR(c, "UTF-8");
    names[1] = "y";
    x[1] = NULL;
    CHECK(!eqnn_file_write(c, path, names, x, 2, NULL, NULL, 0));
    CHECK_ERROR(c, "y is missing");
    eqnn_ctx *other = test_context();
    x[1] = eqnn_zeros(other, 1, 1);
    eqnn_fail(other, "something");
    CHECK(!eqnn_file_write(c, path, names, x, 2, NULL, NULL, 0));
    CHECK_ERROR(c, "y is of a context with an error");
    eqnn_clear(other);
    CHECK(eqnn_file_write(c, path, NULL, NULL, 0, NULL, NULL, 0));
    f = eqnn_file_open(c, path);
    CHECK(f && eqnn_file_count(f) == 0);
    eqnn_file_close(f);
    remove(path);
}

TEST(write_is_whole_or_nothing)
{
    eqnn_ctx *c = test_context();
    const char *path = temporary(0, "whole");
    char part[300];
    size_t n;
    snprintf(part, sizeof part, "%s.part", path);
    CHECK(eqnn_write_file(c, path, "old", 3) && eqnn_write_file(c, path, "newer", 5) &&
          !exists(part));
    unsigned char *bytes = slurp(path, &n);
    CHECK(n == 5 && !memcmp(bytes, "newer", 5));
    free(bytes);
    CHECK(!eqnn_write_file(c, "/nowhere/at/all", "x", 1));
    CHECK_ERROR(c, "/nowhere/at/all is not written: ");
    CHECK(!eqnn_write_file(c, "/tmp", "x", 1)); /* a folder is in the way */
    CHECK_ERROR(c, "write_file: /tmp exists and is not a file");
    CHECK(!exists("/tmp.part"));
    if (exists("/dev/full")) {
        CHECK(!eqnn_write_file(c, "/dev/full/x", "x", 1));
        CHECK_ERROR(c, "not written");
    }
    CHECK(!eqnn_write_file(c, "", "x", 1));
    CHECK_ERROR(c, "no path");
    remove(path);
}

#if defined(__unix__)
/* A link stays a link, permissions stay, and what is no file is not replaced. */
TEST(write_to_what_exists)
{
    eqnn_ctx *c = test_context();
    const char *path = temporary(0, "real");
    char link[300], pipe[300];
    struct stat now;
    snprintf(link, sizeof link, "%s.link", path);
    snprintf(pipe, sizeof pipe, "%s.pipe", path);
    CHECK(eqnn_write_file(c, path, "old", 3) && chmod(path, 0600) == 0);
    CHECK(symlink(path, link) == 0 && mkfifo(pipe, 0600) == 0);
    CHECK(eqnn_write_file(c, link, "newer", 5));
    CHECK(lstat(link, &now) == 0 && S_ISLNK(now.st_mode));
    CHECK(stat(path, &now) == 0 && now.st_size == 5 && (now.st_mode & 0777) == 0600);
    CHECK(!eqnn_write_file(c, pipe, "x", 1));
    CHECK_ERROR(c, ".pipe exists and is not a file");
    CHECK(lstat(pipe, &now) == 0 && S_ISFIFO(now.st_mode));
    remove(link), remove(pipe), remove(path);
}
#endif

/* ---- save and load -------------------------------------------------------------------------- */

static eqnn_tensor *net(eqnn_tensor *x)
{
    x = eqnn_batch_norm(eqnn_mlp(x, "net", "8,8", NULL), "bn", NULL);
    return eqnn_linear(eqnn_dropout(eqnn_silu(x), "drop", 0.2), "head", 1, NULL);
}

static void train(eqnn_ctx *c, eqnn_adam *adam, eqnn_sgd *sgd, int steps)
{
    eqnn_training(c, 1);
    for (int i = 0; i < steps; i++) {
        eqnn_tensor *x = eqnn_normal(c, "data", 16, 3), *l = eqnn_mse(net(x), eqnn_sum_cols(x));
        eqnn_backward(l);
        if (adam) eqnn_adam_step(adam);
        if (sgd) eqnn_sgd_step(sgd);
        eqnn_reset(c);
    }
    eqnn_training(c, 0);
}

static eqnn_adam *adam_with(eqnn_ctx *c, int amsgrad)
{
    eqnn_adam_opts o = { .rate = 1e-2, .decay = 0.01, .clip = 1, .average = 0.9 };
    o.amsgrad = amsgrad;
    return eqnn_adam_make(c, &o);
}

static eqnn_adam *adam_of(eqnn_ctx *c) { return adam_with(c, 0); }

/* Ten steps, or five, a file, and five more in a new context: the same bytes. */
TEST(resume_bit_for_bit)
{
    const char *whole = temporary(0, "whole"), *half = temporary(1, "half"),
               *rest = temporary(2, "rest");
    for (int way = 0; way < 6; way++) {
        int amsgrad = way / 3, order = way % 3; /* load before, after the optimizer, a first call */
        eqnn_ctx *a = test_context(), *b = test_context(), *d = test_context();
        train(a, adam_with(a, amsgrad), NULL, 10);
        eqnn_note(a, "epoch", "seven");
        CHECK(eqnn_save(a, whole));
        train(b, adam_with(b, amsgrad), NULL, 5);
        eqnn_note(b, "epoch", "six");
        CHECK(eqnn_save(b, half));
        eqnn_adam *adam = order == 1 ? adam_with(d, amsgrad) : NULL;
        if (order == 2) net(eqnn_normal(d, "other", 2, 3));
        CHECK(eqnn_load(d, half, NULL));
        if (!adam) adam = adam_with(d, amsgrad);
        CHECK(eqnn_adam_steps(adam) == 5);
        CHECK_TEXT(eqnn_noted(d, "epoch"), "six");
        if (order == 2)
            eqnn_reset(d), eqnn_load(d, half, NULL); /* a reset moves the tick; so load again */
        eqnn_note(d, "epoch", "seven");
        train(d, adam, NULL, 5);
        CHECK_OK(d);
        CHECK(eqnn_save(d, rest));
        CHECK(same_file(whole, rest));
        remove(whole), remove(half), remove(rest);
    }
}

TEST(resume_sgd)
{
    const char *whole = temporary(0, "whole"), *half = temporary(1, "half"),
               *rest = temporary(2, "rest");
    eqnn_sgd_opts o = { .rate = 1e-2, .momentum = 0.9, .nesterov = 1 };
    eqnn_ctx *a = test_context(), *b = test_context(), *d = test_context();
    train(a, NULL, eqnn_sgd_make(a, &o), 7);
    train(b, NULL, eqnn_sgd_make(b, &o), 3);
    CHECK(eqnn_save(a, whole) && eqnn_save(b, half) && eqnn_load(d, half, NULL));
    train(d, NULL, eqnn_sgd_make(d, &o), 4);
    CHECK(eqnn_save(d, rest));
    CHECK(same_file(whole, rest));
    remove(whole), remove(half), remove(rest);
}

/* A parameter that came late has its own count of steps, and keeps it. */
TEST(resume_late_names)
{
    const char *whole = temporary(0, "whole"), *half = temporary(1, "half"),
               *rest = temporary(2, "rest");
    for (int part = 0; part < 2; part++) {
        eqnn_ctx *c = test_context();
        eqnn_adam *adam = adam_of(c);
        for (int i = 0; i < 8; i++) {
            if (part && i == 5) {
                CHECK(eqnn_save(c, half));
                c = test_context();
                CHECK(eqnn_load(c, half, NULL));
                adam = adam_of(c);
            }
            eqnn_open(c, "late");
            eqnn_tensor *y = eqnn_linear(eqnn_normal(c, "x", 4, 3), "early", 2, NULL);
            if (i > 2) y = eqnn_linear(y, "late", 2, NULL);
            eqnn_backward(eqnn_sum(eqnn_square(y)));
            eqnn_adam_step(adam);
            eqnn_reset(c);
        }
        CHECK(eqnn_save(c, part ? rest : whole));
    }
    CHECK(same_file(whole, rest));
    remove(whole), remove(half), remove(rest);
}

TEST(load_refuses)
{
    const char *path = temporary(0, "model");
    eqnn_ctx *a = test_context();
    train(a, adam_of(a), NULL, 2);
    CHECK(eqnn_save(a, path));

    eqnn_ctx *c = test_context(); /* another size, before and after the first call */
    CHECK(eqnn_load(c, path, NULL));
    CHECK(!eqnn_linear(eqnn_full(c, 1, 9, 1), "head", 1, NULL));
    CHECK_ERROR(c, "load: head.weight is [1,9], in the file [1,8]");
    c = test_context();
    eqnn_linear(eqnn_full(c, 1, 9, 1), "head", 1, NULL);
    CHECK(!eqnn_load(c, path, NULL));
    CHECK_ERROR(c, "load: head.weight is [1,9], in the file [1,8]");

    c = test_context(); /* left over */
    CHECK(eqnn_load(c, path, NULL));
    eqnn_adam *adam = adam_of(c);
    eqnn_backward(eqnn_sum(eqnn_linear(eqnn_full(c, 1, 8, 1), "head", 1, NULL)));
    CHECK(!eqnn_loaded(c));
    CHECK_ERROR(c, "8 entries belong to no parameter, the first is net.0.weight");
    CHECK(!eqnn_save(c, path));
    CHECK_ERROR(c, "was loaded and not used yet");
    CHECK(!eqnn_adam_step(adam));
    CHECK_ERROR(c, "belong to no parameter");

    c = test_context(); /* missing */
    CHECK(eqnn_load(c, path, NULL));
    net(eqnn_linear(eqnn_full(c, 1, 3, 1), "new", 3, NULL));
    CHECK(!eqnn_loaded(c));
    CHECK_ERROR(c, "2 parameters were in no file, the first is new.weight");
    CHECK(!eqnn_load(c, "/nowhere", NULL));
    CHECK_ERROR(c, "/nowhere");
    remove(path);
}

/* Where a prefix is open a file waits for names that come after the first step; where none is, it
   is refused whole if it does not fit, whatever else patterns say. */
TEST(load_and_open_names)
{
    const char *path = temporary(0, "both");
    eqnn_ctx *a = test_context();
    eqnn_linear(eqnn_linear(eqnn_full(a, 1, 4, 0.5), "early", 3, NULL), "late", 2, NULL);
    double early = eqnn_at(eqnn_parameter(a, "early.weight"), 0, 0);
    double late = eqnn_at(eqnn_parameter(a, "late.weight"), 0, 0);
    CHECK(eqnn_save(a, path));
    for (int open = 0; open < 2; open++) {
        eqnn_ctx *c = eqnn_make(&(eqnn_opts){ .seed = 5 });
        eqnn_adam *adam = adam_of(c);
        if (!open) eqnn_decay_scale(c, "*bias*", 0);
        if (open) {
            eqnn_open(c, "late");
            CHECK(eqnn_load(c, path, &(eqnn_load_opts){ .partial = 1, .weights_only = 1 }));
        }
        eqnn_backward(eqnn_sum(eqnn_linear(eqnn_full(c, 1, 4, 0.5), "early", 3, NULL)));
        CHECK(eqnn_adam_step(adam));
        eqnn_reset(c);
        if (open) {
            eqnn_linear(eqnn_full(c, 1, 3, 0.5), "late", 2, NULL);
            CHECK_NEAR(eqnn_at(eqnn_parameter(c, "late.weight"), 0, 0), late, 0);
        } else {
            CHECK(!eqnn_load(c, path, NULL));
            CHECK_ERROR(c, "2 entries belong to no parameter, the first is late.weight");
            CHECK(fabs(eqnn_at(eqnn_parameter(c, "early.weight"), 0, 0) - early) > 1e-6);
        }
        CHECK_OK(c);
        eqnn_free(c);
    }
    remove(path);
}

/* A server that reloads: what an earlier file brought does not stand in for what a later lacks. */
TEST(reload_of_less)
{
    const char *all = temporary(0, "all"), *half = temporary(1, "half");
    eqnn_ctx *a = test_context(), *b = test_context(), *c = test_context();
    eqnn_tensor *x = eqnn_full(a, 1, 4, 0.5);
    eqnn_linear(eqnn_linear(x, "first", 8, NULL), "last", 3, NULL);
    CHECK(eqnn_save(a, all));
    eqnn_linear(eqnn_full(b, 1, 4, 0.5), "first", 8, NULL);
    CHECK(eqnn_save(b, half));
    CHECK(eqnn_load(c, half, &(eqnn_load_opts){ .partial = 1 }) && eqnn_load(c, all, NULL));
    eqnn_linear(eqnn_linear(eqnn_full(c, 1, 4, 0.5), "first", 8, NULL), "last", 3, NULL);
    CHECK(eqnn_loaded(c));
    CHECK(eqnn_load(c, half, NULL) && !eqnn_loaded(c));
    CHECK_ERROR(c, "2 parameters were in no file, the first is last.weight");
    CHECK(eqnn_load(c, all, NULL) && eqnn_loaded(c));
    CHECK_OK(c);
    remove(all);
    remove(half);
}

/* In a context that has trained a file that does not fit changes nothing and is forgotten. */
TEST(load_refuses_later)
{
    const char *good = temporary(0, "good"), *bad = temporary(1, "bad");
    eqnn_ctx *c = test_context();
    eqnn_adam *adam = adam_of(c);
    train(c, adam, NULL, 2);
    CHECK(eqnn_save(c, good));
    eqnn_ctx *more = test_context(); /* two names too many */
    net(eqnn_full(more, 2, 3, 1));
    eqnn_linear(eqnn_full(more, 2, 3, 1), "typo", 2, NULL);
    CHECK(eqnn_save(more, bad));
    double before = eqnn_value(eqnn_sum(net(eqnn_full(c, 2, 3, 1))));
    CHECK(!eqnn_load(c, bad, NULL));
    CHECK_ERROR(c, "2 entries belong to no parameter, the first is typo.weight");
    CHECK_NEAR(eqnn_value(eqnn_sum(net(eqnn_full(c, 2, 3, 1)))), before, 0);
    CHECK(eqnn_load(c, good, NULL) && eqnn_save(c, good));
    eqnn_ctx *less = test_context(); /* the head is missing, after a file that had it */
    eqnn_mlp(eqnn_full(less, 2, 3, 1), "net", "8,8", NULL);
    CHECK(eqnn_save(less, bad));
    CHECK(!eqnn_load(c, bad, NULL));
    CHECK_ERROR(c, "parameters are not in ");
    CHECK_NEAR(eqnn_value(eqnn_sum(net(eqnn_full(c, 2, 3, 1)))), before, 0);
    train(c, adam, NULL, 1);
    CHECK_OK(c);
    remove(good), remove(bad);
}

static void *counted(void *user, void *old, size_t old_size, size_t new_size)
{
    *(size_t *)user += new_size - old_size;
    if (new_size) return realloc(old, new_size);
    free(old);
    return NULL;
}

/* A program that only predicts may load again and again. */
TEST(load_again)
{
    const char *path = temporary(0, "again");
    size_t held = 0, first = 0;
    eqnn_ctx *a = test_context(),
             *c = eqnn_make(&(eqnn_opts){ .alloc = counted, .alloc_user = &held });
    net(eqnn_full(a, 2, 3, 1));
    CHECK(eqnn_save(a, path));
    for (int i = 0; i < 5; i++) {
        CHECK(eqnn_load(c, path, NULL));
        net(eqnn_full(c, 2, 3, 1));
        CHECK(eqnn_loaded(c));
        eqnn_reset(c);
        if (i == 1) first = held;
    }
    CHECK(held == first);
    eqnn_free(c);
    CHECK(held == 0);
    remove(path);
}

TEST(load_parts)
{
    const char *path = temporary(0, "model");
    eqnn_ctx *a = test_context();
    train(a, adam_of(a), NULL, 2);
    CHECK(eqnn_save(a, path));

    eqnn_ctx *c = test_context(); /* weights only: no steps, no notes, no moments */
    CHECK(eqnn_load(c, path, &(eqnn_load_opts){ .weights_only = 1 }));
    CHECK_SAME(net(eqnn_full(c, 2, 3, 1)), net(eqnn_full(a, 2, 3, 1)), 0);
    CHECK(eqnn_loaded(c) && eqnn_adam_steps(adam_of(c)) == 0);

    c = test_context(); /* under a prefix, and partial */
    CHECK(eqnn_load(c, path, &(eqnn_load_opts){ .partial = 1, .prefix = "old." }));
    eqnn_tensor *x = eqnn_leave(net(eqnn_enter(eqnn_full(c, 2, 3, 1), "old")));
    CHECK_SAME(x, net(eqnn_full(a, 2, 3, 1)), 0);
    eqnn_linear(x, "new", 2, NULL);
    CHECK(eqnn_loaded(c));
    eqnn_adam *adam = adam_of(c);
    eqnn_backward(eqnn_sum(x));
    CHECK(eqnn_adam_step(adam) && eqnn_adam_steps(adam) == 3);
    remove(path);
}

/* Averaged weights are saved alone, as weights. */
TEST(save_average)
{
    const char *path = temporary(0, "average");
    eqnn_ctx *a = test_context(), *b = test_context();
    train(a, adam_of(a), NULL, 5);
    CHECK(eqnn_use_average(a, 1) && eqnn_save(a, path));
    CHECK(eqnn_load(b, path, NULL));
    CHECK_SAME(net(eqnn_full(b, 2, 3, 1)), net(eqnn_full(a, 2, 3, 1)), 0);
    eqnn_file *f = eqnn_file_open(b, path);
    CHECK(eqnn_file_count(f) == 10 && !eqnn_file_find(f, "eqnn.average.head.weight"));
    eqnn_file_close(f);
    CHECK(eqnn_loaded(b));
    remove(path);
}

/* What PyTorch and e3nn write: any order, other types and shapes, num_batches_tracked, tables. */
TEST(load_foreign)
{
    const char *path = temporary(0, "foreign");
    const char *json =
        "{\"a.weight\":{\"dtype\":\"U8\",\"shape\":[2,2,1],\"data_offsets\":[8,12]},"
        "\"a.num_batches_tracked\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[0,8]},"
        "\"a.tp.output_mask\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[14,15]},"
        "\"a.tp._w3j_1_1_0\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[15,16]},"
        "\"a.act.to_s2.alphas\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[16,17]},"
        "\"change_of_basis\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[17,18]},"
        "\"a.tp.weight\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[18,18]},"
        "\"a.act.grid_in.qw\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[18,19]},"
        "\"a._main._triu_indices_3\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[19,20]},"
        "\"a.bias\":{\"dtype\":\"U8\",\"shape\":[2,1],\"data_offsets\":[12,14]}}";
    eqnn_ctx *c = test_context();
    size_t n = make_file(json, 0, 20);
    CHECK(eqnn_write_file(c, path, made, n) && eqnn_load(c, path, NULL));
    eqnn_linear(eqnn_full(c, 1, 2, 1), "a", 2, NULL);
    CHECK(eqnn_loaded(c));
    CHECK_NEAR(eqnn_at(eqnn_parameter(c, "a.weight"), 1, 0), 11, 0);
    CHECK_NEAR(eqnn_at(eqnn_parameter(c, "a.bias"), 0, 1), 14, 0);
    remove(path);
}

/* The sizes of an entry as PyTorch's state_dict has them, as a text. */
static const char *sizes_of(eqnn_ctx *c, const eqnn_file *f, const char *name)
{
    const eqnn_entry *e = eqnn_file_find(f, name);
    const char *text = e ? "" : "missing";
    for (int i = 0; e && i < e->dims; i++)
        text = eqnn_format(c, "%s%s%d", text, i ? "," : "", (int)e->shape[i]);
    return text;
}

static eqnn_tensor *one_row(eqnn_ctx *c)
{
    eqnn_tensor *x = eqnn_linear(eqnn_full(c, 2, 4, 1), "linear", 1, NULL);
    const int first[2] = { 0, 0 };
    x = eqnn_concat(x, eqnn_fc(x, "fc", "3,2", NULL));
    x = eqnn_concat(x, eqnn_embedding(c, eqnn_ints_make(c, 2, first, 1, 0), "embedding", 1, 3,
                                      NULL));
    return eqnn_mul(x, eqnn_param(c, "own", 1, 6, NULL));
}

/* A matrix of one row stays a matrix in the file; read is what has the numbers. */
TEST(matrix_of_one_row)
{
    const char *path = temporary(0, "row");
    eqnn_opts other = test_opts();
    other.seed = 2;
    eqnn_ctx *c = test_context(), *d = eqnn_make(&other);
    eqnn_tensor *y = eqnn_keep(one_row(c));
    eqnn_reset(c);
    CHECK(eqnn_save(c, path));
    eqnn_file *f = eqnn_file_open(c, path);
    CHECK_TEXT(sizes_of(c, f, "linear.weight"), "1,4");
    CHECK_TEXT(sizes_of(c, f, "linear.bias"), "1");
    CHECK_TEXT(sizes_of(c, f, "fc.layer0.weight"), "1,3");
    CHECK_TEXT(sizes_of(c, f, "fc.layer1.weight"), "3,2");
    CHECK_TEXT(sizes_of(c, f, "embedding.weight"), "1,3");
    CHECK_TEXT(sizes_of(c, f, "own"), "6");
    eqnn_file_close(f);
    CHECK(eqnn_load(d, path, NULL));
    eqnn_tensor *z = one_row(d);
    for (int k = 0; k < 6; k++) CHECK_NEAR(eqnn_at(z, 1, k), eqnn_at(y, 1, k), 0);
    CHECK(eqnn_loaded(d));
    const char *names[1] = { "linear.weight" }; /* as a vector it is read too */
    eqnn_tensor *row = eqnn_full(c, 1, 4, 3);
    eqnn_load_opts o;
    memset(&o, 0, sizeof o);
    o.partial = 1;
    CHECK(eqnn_file_write(c, path, names, &row, 1, NULL, NULL, 0) && eqnn_load(d, path, &o));
    CHECK_NEAR(eqnn_at(eqnn_parameter(d, "linear.weight"), 0, 3), 3, 0);
    eqnn_free(d);
    remove(path);
}

TEST(notes)
{
    eqnn_ctx *c = test_context();
    CHECK(!eqnn_noted(c, "k") && eqnn_note(c, "k", "one") && eqnn_note(c, "k", "three") &&
          eqnn_note(c, "m", ""));
    CHECK_TEXT(eqnn_noted(c, "k"), "three");
    CHECK(!eqnn_note(c, "eqnn.tick", "4"));
    CHECK_ERROR(c, "note: eqnn.tick");
    CHECK(!eqnn_note(c, "k", "\xff"));
    CHECK_ERROR(c, "UTF-8");
    CHECK_TEXT(eqnn_noted(c, "k"), "three");
}

TEST_MAIN
