/* json.h - a small JSON reader for tests: golden files describe their cases in it

      json *j = json_parse("{\"a\": [1, 2]}");              NULL when it is not JSON
      json_number(json_at(json_get(j, "a"), 1), 0)          2; missing things give the default
      json_free(j);                                          */
#ifndef EQNN_JSON_H
#define EQNN_JSON_H

#include <stdlib.h>
#include <string.h>

typedef struct json {
    char type;        /* one of  { [ " 0 t f n: object, array, string, number, true, ... */
    char *key, *text; /* its name inside an object; a string's characters                */
    double number;
    int count;                 /* how many it holds                                               */
    struct json *first, *next; /* what it holds; its neighbour                                    */
} json;

static void json_free(json *j)
{
    while (j) {
        json *next = j->next;
        json_free(j->first);
        free(j->key);
        free(j->text);
        free(j);
        j = next;
    }
}

static void json_space(const char **s)
{
    while (**s && strchr(" \t\r\n", **s)) (*s)++;
}

/* The characters of a string; escapes become one character each, \u.... a question mark. */
static char *json_string(const char **s)
{
    char *text = (char *)malloc(strlen(*s) + 1), *t = text;
    if (**s != '"' || !text) { free(text); return NULL; }
    for ((*s)++; **s && **s != '"'; (*s)++) {
        if (**s != '\\') { *t++ = **s; continue; }
        (*s)++;
        if (!**s) break;
        if (**s == 'u' && strlen(*s) > 4) { *s += 4; *t++ = '?'; }
        else *t++ = **s == 'n' ? '\n' : **s == 't' ? '\t' : **s;
    }
    *t = 0;
    if (**s != '"') { free(text); return NULL; }
    (*s)++;
    return text;
}

static json *json_value(const char **s, int depth);

/* What stands between the brackets of an object or an array; 0 when it is malformed. */
static int json_items(json *j, const char **s, int depth)
{
    char close = j->type == '{' ? '}' : ']';
    json **end = &j->first;
    (*s)++;
    json_space(s);
    if (**s == close) { (*s)++; return 1; }
    for (;;) {
        char *key = NULL;
        json_space(s);
        if (close == '}') {
            key = json_string(s);
            json_space(s);
            if (!key || **s != ':') { free(key); return 0; }
            (*s)++;
        }
        *end = json_value(s, depth + 1);
        if (!*end) { free(key); return 0; }
        (*end)->key = key;
        end = &(*end)->next;
        j->count++;
        json_space(s);
        if (**s == close) { (*s)++; return 1; }
        if (*(*s)++ != ',') return 0;
    }
}

static int json_word(const char **s, const char *word)
{
    size_t n = strlen(word);
    if (strncmp(*s, word, n)) return 0;
    *s += n;
    return 1;
}

static int json_fill(json *j, const char **s, int depth)
{
    char *end;
    j->type = **s;
    switch (**s) {
    case '{': case '[': return json_items(j, s, depth);
    case '"': j->text = json_string(s); return j->text != NULL;
    case 't': return json_word(s, "true");
    case 'f': return json_word(s, "false");
    case 'n': return json_word(s, "null");
    default:
        j->type = '0';
        j->number = strtod(*s, &end);
        if (end == *s) return 0;
        *s = end;
        return 1;
    }
}

static json *json_value(const char **s, int depth)
{
    json *j = (json *)calloc(1, sizeof(json));
    json_space(s);
    if (j && depth < 100 && json_fill(j, s, depth)) return j;
    json_free(j);
    return NULL;
}

static json *json_parse(const char *s)
{
    json *j = s ? json_value(&s, 0) : NULL;
    if (!j) return NULL;
    json_space(&s);
    if (!*s) return j;
    json_free(j);
    return NULL;
}

static const json *json_get(const json *j, const char *key)
{
    if (!j || j->type != '{') return NULL;
    for (j = j->first; j && strcmp(j->key, key); j = j->next) { }
    return j && j->type != 'n' ? j : NULL; /* null is as good as missing */
}

static const json *json_at(const json *j, int i)
{
    if (!j || i < 0 || i >= j->count) return NULL;
    for (j = j->first; i > 0; i--) j = j->next;
    return j;
}

static int json_count(const json *j) { return j ? j->count : 0; }
static double json_number(const json *j, double missing)
{
    return j && j->type == '0' ? j->number : missing;
}
static int json_int(const json *j, int missing) { return (int)json_number(j, missing); }
static int json_true(const json *j, int missing) { return j ? j->type == 't' : missing; }
static const char *json_text(const json *j, const char *missing)
{
    return j && j->type == '"' ? j->text : missing;
}

#endif
