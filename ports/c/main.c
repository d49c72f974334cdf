/* main.c - the two levels of docs/protocol.md over trit.h: `trit verify FILE` and `trit serve`. */
#include "trit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TRY(call)                                                                                                      \
    do {                                                                                                               \
        trit_clause broken_ = (call);                                                                                  \
        if (broken_ != NULL) return broken_;                                                                           \
    } while (0)

enum { MAX_REQUEST = 1 << 20, MAX_JSON_NESTING = 64, MAX_LOG = 100 };

/* A request: one line of JSON, read and unescaped in place. A reader gives false where the text is not what it reads;
 * none goes past the 0 that ends the line. */

enum type { ABSENT, LITERAL, INTEGER, STRING, LIST, OTHER };

struct text {
    uint8_t *bytes;
    size_t size;
};

struct value {
    enum type type;
    struct text text; /* of a string, unescaped, with a 0 after it; of an integer as it was written */
    bool negative;
    uint64_t integer; /* its magnitude, at most UINT64_MAX */
    size_t count, strings;
    struct text items[TRIT_MAX_DEPTH]; /* of a list of *count* values, the first *strings* strings */
};

enum { SEQ, CMD, FILE_, TENSOR, DEPTH, DTYPE, ROWS, COLUMNS, TRITS, PACKED, LEVELS, PLANES, FIELDS };
static const char *const FIELD_NAMES[FIELDS] = {"seq",  "cmd",     "file",  "tensor", "depth",  "dtype",
                                                "rows", "columns", "trits", "packed", "levels", "planes"};
struct request {
    struct value field[FIELDS];
};

static bool read_value(uint8_t **at, struct value *v, unsigned depth);

static bool is(const struct text *text, const char *other)
{
    return text->size == strlen(other) && memcmp(text->bytes, other, text->size) == 0;
}

static bool take(uint8_t **at, char c)
{
    while (**at == ' ' || **at == '\t' || **at == '\r') ++*at;
    if (**at != (uint8_t)c) return false;
    ++*at;
    return true;
}

static bool is_digit(uint8_t c) { return c >= '0' && c <= '9'; }

static int hex_digit(uint8_t c) { return is_digit(c) ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1; }

static bool read_unit(uint8_t **at, uint32_t *unit) /* \uXXXX */
{
    *unit = 0;
    if ((*at)[0] != '\\' || (*at)[1] != 'u') return false;
    *at += 2;
    for (int i = 0; i < 4; i++, ++*at) {
        int digit = hex_digit(**at >= 'A' && **at <= 'F' ? (uint8_t)(**at - 'A' + 'a') : **at);
        if (digit < 0) return false;
        *unit = *unit << 4 | (uint32_t)digit;
    }
    return true;
}

static bool read_point(uint8_t **at, uint32_t *point) /* one \uXXXX, or two that are a surrogate pair */
{
    uint32_t low;
    if (!read_unit(at, point)) return false;
    if (*point < 0xD800 || *point > 0xDFFF) return true;
    if (*point > 0xDBFF || !read_unit(at, &low) || low < 0xDC00 || low > 0xDFFF) return false;
    *point = 0x10000 + ((*point - 0xD800) << 10) + (low - 0xDC00);
    return true;
}

static uint8_t *put_utf8(uint8_t *to, uint32_t point)
{
    static const uint8_t lead[5] = {0, 0, 0xC0, 0xE0, 0xF0};
    unsigned size = point < 0x80 ? 1 : point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
    for (unsigned i = size; i-- > 1; point >>= 6) to[i] = (uint8_t)(0x80 | (point & 0x3F));
    to[0] = (uint8_t)(lead[size] | point);
    return to + size;
}

static bool read_string(uint8_t **at, struct text *text)
{
    static const char escapes[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
    if (!take(at, '"')) return false;
    uint8_t *to = *at; /* never ahead of *at: an escape is longer than what it stands for */
    text->bytes = to;
    while (**at != '"') {
        uint32_t point;
        if (**at < 0x20) return false; /* the end of the line, too */
        const char *escape = **at == '\\' && (*at)[1] != 0 ? strchr(escapes, (*at)[1]) : NULL;
        if (escape != NULL) {
            *to++ = (uint8_t)meanings[escape - escapes];
            *at += 2;
        } else if (**at != '\\') {
            *to++ = *(*at)++;
        } else {
            if (!read_point(at, &point)) return false;
            to = put_utf8(to, point);
        }
    }
    ++*at;
    *to = 0;
    text->size = (size_t)(to - text->bytes);
    return true;
}

static bool read_number(uint8_t **at, struct value *v)
{
    v->type = INTEGER;
    v->text.bytes = *at;
    v->negative = take(at, '-');
    if (!is_digit(**at) || (**at == '0' && is_digit((*at)[1]))) return false;
    for (v->integer = 0; is_digit(**at); ++*at) {
        uint64_t digit = (uint64_t)(**at - '0');
        v->integer = v->integer > (UINT64_MAX - digit) / 10 ? UINT64_MAX : 10 * v->integer + digit;
    }
    v->text.size = (size_t)(*at - v->text.bytes);
    for (; **at != 0 && (is_digit(**at) || strchr(".eE+-", **at) != NULL); ++*at) v->type = OTHER;
    return true;
}

static bool read_list(uint8_t **at, struct value *v, unsigned depth)
{
    struct value item;
    v->type = LIST;
    if (take(at, ']')) return true;
    do {
        if (!read_value(at, &item, depth + 1)) return false;
        if (item.type == STRING && v->count < TRIT_MAX_DEPTH) v->items[v->strings++] = item.text;
        v->count++;
    } while (take(at, ','));
    return take(at, ']');
}

/* Reads an object, and keeps in *q*, where that is not NULL, the values of the keys that are fields of a request. */
static bool read_object(uint8_t **at, struct request *q, unsigned depth)
{
    struct value v;
    struct text key;
    if (take(at, '}')) return true;
    do {
        if (!read_string(at, &key) || !take(at, ':') || !read_value(at, &v, depth + 1)) return false;
        for (int i = 0; q != NULL && i < FIELDS; i++)
            if (is(&key, FIELD_NAMES[i])) q->field[i] = v;
    } while (take(at, ','));
    return take(at, '}');
}

static bool read_literal(uint8_t **at, struct value *v)
{
    static const char *const literals[] = {"null", "true", "false"};
    for (size_t i = 0; i < 3; i++) {
        size_t size = strlen(literals[i]);
        if (strncmp((const char *)*at, literals[i], size) != 0) continue;
        *at += size;
        v->type = i == 0 ? LITERAL : OTHER;
        return true;
    }
    return false;
}

static bool read_value(uint8_t **at, struct value *v, unsigned depth)
{
    memset(v, 0, sizeof *v);
    v->type = OTHER;
    if (depth > MAX_JSON_NESTING) return false;
    if (take(at, '{')) return read_object(at, NULL, depth);
    if (take(at, '[')) return read_list(at, v, depth);
    if (**at == '"') {
        v->type = STRING;
        return read_string(at, &v->text);
    }
    return **at == '-' || is_digit(**at) ? read_number(at, v) : read_literal(at, v);
}

static bool read_request(uint8_t *line, struct request *q)
{
    memset(q, 0, sizeof *q);
    return take(&line, '{') && read_object(&line, q, 0) && take(&line, '\0') && q->field[SEQ].type == INTEGER;
}

/* What commands ask of a request's fields. */

static const char MALFORMED[] = "not a request of this kind", NO_MEMORY[] = "not enough memory";

static trit_clause get_integer(const struct value *v, uint64_t *integer)
{
    *integer = v->integer;
    return v->type != INTEGER || v->negative ? MALFORMED : NULL;
}

static trit_clause unhex(struct text *text)
{
    if (text->size % 2 != 0) return MALFORMED;
    text->size /= 2;
    for (size_t i = 0; i < text->size; i++) {
        int high = hex_digit(text->bytes[2 * i]), low = hex_digit(text->bytes[2 * i + 1]);
        if (high < 0 || low < 0) return MALFORMED;
        text->bytes[i] = (uint8_t)(16 * high + low);
    }
    return NULL;
}

static trit_clause get_bytes(struct value *v) { return v->type != STRING ? MALFORMED : unhex(&v->text); }

/* Of a matrix of rows by columns, *n* bytes; where that is not how many came, PACK-1 cannot hold. */
static trit_clause check_matrix(uint64_t rows, uint64_t columns, size_t n)
{
    bool fits = columns == 0 ? n == 0 : n % columns == 0 && n / columns == rows;
    return fits ? NULL : "PACK-1";
}

/* The rows and columns of *field*: rows become 0 where there are no columns, so that both fit size_t if *field* fits them. */
static trit_clause get_matrix(struct request *q, int field, uint64_t *rows, uint64_t *columns)
{
    TRY(get_integer(&q->field[ROWS], rows));
    TRY(get_integer(&q->field[COLUMNS], columns));
    TRY(get_bytes(&q->field[field]));
    TRY(check_matrix(field == PACKED ? trit_byte_rows(*rows) : *rows, *columns, q->field[field].text.size));
    if (*columns == 0) *rows = 0;
    if (*rows == 0) *columns = 0;
    return NULL;
}

static trit_clause get_path(const struct request *q, const char **path)
{
    const struct value *v = &q->field[FILE_];
    *path = (const char *)v->text.bytes;
    return v->type != STRING || strlen(*path) != v->text.size ? MALFORMED : NULL;
}

/* Answers. */

static void put_hex(const void *bytes, size_t size)
{
    const uint8_t *from = bytes;
    putchar('"');
    for (size_t i = 0; i < size; i++) printf("%02x", from[i]);
    putchar('"');
}

static void put_string(struct trit_text text)
{
    putchar('"');
    for (size_t i = 0; i < text.size; i++) {
        uint8_t c = text.bytes[i];
        if (c < 0x20 || c == '"' || c == '\\') printf("\\u%04x", c);
        else putchar(c);
    }
    putchar('"');
}

static void put_separator(uint64_t index) { fputs(index == 0 ? "" : ", ", stdout); }

/* Members of an object, each with a comma before it but the first: *before* is "{" or ", ". */
static void put_integer(const char *before, const char *key, uint64_t value)
{
    printf("%s\"%s\": %llu", before, key, (unsigned long long)value);
}

static void put_bytes(const char *before, const char *key, const void *bytes, size_t size)
{
    printf("%s\"%s\": ", before, key);
    put_hex(bytes, size);
}

static void put_integers(const char *before, const char *key, const uint64_t *values, unsigned n)
{
    printf("%s\"%s\": [", before, key);
    for (unsigned i = 0; i < n; i++) printf("%s%llu", i == 0 ? "" : ", ", (unsigned long long)values[i]);
    putchar(']');
}

static void put_verdict(trit_clause clause)
{
    static const char *const verdicts[] = {"valid", "invalid", NULL, "unsupported"};
    printf("{\"verdict\": \"%s\", \"clause\": ", verdicts[trit_status(clause)]);
    printf(clause == NULL ? "null}" : "\"%s\"}", clause);
}

static void put_seq(const struct request *q)
{
    if (q->field[SEQ].type != INTEGER) fputs("{\"seq\": null", stdout);
    else printf("{\"seq\": %.*s", (int)q->field[SEQ].text.size, (const char *)q->field[SEQ].text.bytes); /* <= 1 MiB */
}

static void begin(const struct request *q)
{
    put_seq(q);
    fputs(", \"result\": ", stdout);
}

/* The commands. One either prints its result, after `begin`, and gives NULL, or prints nothing and gives the reason. */

/* Tells people of the first MAX_LOG findings: a hostile file can have millions. */
static void log_finding(void *context, trit_clause clause, struct trit_text tensor, uint64_t at)
{
    unsigned *logged = context;
    if (++*logged > MAX_LOG) return;
    fprintf(stderr, "%s at byte %llu", clause, (unsigned long long)at);
    if (tensor.size > 0) fprintf(stderr, " of tensor %.*s", (int)tensor.size, (const char *)tensor.bytes); /* <= 512 bytes */
    fputc('\n', stderr);
}

static trit_clause verify_path(const char *path)
{
    struct trit_file file;
    unsigned logged = 0;
    trit_clause clause = trit_open(&file, path, log_finding, &logged);
    if (clause == NULL) clause = trit_verify(&file);
    trit_close(&file);
    return clause;
}

static trit_clause do_verify(struct request *q)
{
    const char *path;
    TRY(get_path(q, &path));
    trit_clause clause = verify_path(path);
    if (trit_status(clause) == 2) return clause;
    begin(q);
    put_verdict(clause);
    return NULL;
}

static void put_tensor(const struct trit_tensor *t)
{
    fputs("{\"name\": ", stdout);
    put_string(t->name);
    printf(", \"kind\": \"%s\", \"dtype\": \"%s\"", t->is_trit ? "trit" : "raw", trit_dtypes[t->dtype].name);
    put_integers(", ", "shape", t->shape, t->rank);
    put_integers(", ", "offsets", t->offset, trit_segments(t));
    if (t->is_trit) {
        put_integer(", ", "depth", t->depth);
        put_integer(", ", "shift", t->shift);
        put_integer(", ", "group_size", t->group_size);
        put_bytes(", ", "codebook", t->codebook, 4 * TRIT_STEPS);
    }
    putchar('}');
}

static trit_clause put_header(struct request *q, struct trit_file *f)
{
    struct trit_text key, value;
    size_t at = f->metadata_at;
    begin(q);
    put_bytes("{", "identity", f->identity, TRIT_DIGEST);
    printf(", \"version\": [%u, %u], \"metadata\": {", f->major, f->minor);
    for (size_t i = 0; i < f->metadata_pairs; i++) {
        trit_metadata(f, &at, &key, &value);
        put_separator(i);
        put_string(key);
        fputs(": ", stdout);
        put_string(value);
    }
    fputs("}, \"tensors\": [", stdout);
    for (size_t i = 0; i < f->count; i++) {
        put_separator(i);
        put_tensor(&f->tensors[i]);
    }
    fputs("]}", stdout);
    return NULL;
}

struct hashes {
    uint8_t levels[TRIT_DIGEST], codes[TRIT_DIGEST], values[TRIT_DIGEST];
};

static trit_clause hash_weights(const struct trit_weights *w, enum trit_float dtype, struct hashes *hashes)
{
    const struct trit_tensor *t = w->tensor; /* t->K and t->G fit size_t: trit_load has room for a row */
    struct trit_sha256 levels_hash, codes_hash, values_hash;
    uint8_t *codes = t->K <= SIZE_MAX / 8 ? malloc((size_t)(t->G + 5 * t->K)) : NULL; /* and levels, and values */
    if (codes == NULL) return NO_MEMORY;
    int8_t *levels = (int8_t *)codes + t->G;
    uint8_t *values = codes + t->G + t->K;
    trit_sha256_begin(&levels_hash);
    trit_sha256_begin(&codes_hash);
    trit_sha256_begin(&values_hash);
    for (uint64_t row = 0; row < t->rows; row++) {
        trit_decode_codes(w, row, codes);
        trit_decode_levels(w, row, levels);
        trit_decode_values(w, codes, levels, dtype, values);
        trit_sha256_add(&codes_hash, codes, (size_t)t->G);
        trit_sha256_add(&levels_hash, levels, (size_t)t->K);
        trit_sha256_add(&values_hash, values, (size_t)t->K * trit_dtypes[dtype].bytes);
    }
    trit_sha256_end(&levels_hash, hashes->levels);
    trit_sha256_end(&codes_hash, hashes->codes);
    trit_sha256_end(&values_hash, hashes->values);
    free(codes);
    return NULL;
}

/* The dtype and the depth that are asked for; null is the tensor's own. */
static trit_clause get_view(const struct request *q, const struct trit_tensor *t, unsigned *dtype, unsigned *depth)
{
    const struct value *d = &q->field[DEPTH], *name = &q->field[DTYPE];
    *dtype = t->dtype;
    *depth = t->depth;
    if (d->type == INTEGER && (d->negative || d->integer < 1 || d->integer > TRIT_MAX_DEPTH)) return "TEN-2";
    if (d->type == INTEGER && d->integer < t->depth) *depth = (unsigned)d->integer;
    if (d->type > INTEGER || (name->type != STRING && name->type > LITERAL)) return MALFORMED;
    if (name->type != STRING) return NULL;
    for (*dtype = 0; *dtype < TRIT_FLOATS && !is(&name->text, trit_dtypes[*dtype].name);) ++*dtype;
    return *dtype == TRIT_FLOATS ? "TEN-5" : NULL;
}

static trit_clause decode_trit(const struct request *q, struct trit_file *f, const struct trit_tensor *t, struct hashes *hashes)
{
    unsigned dtype, depth;
    struct trit_weights weights;
    TRY(get_view(q, t, &dtype, &depth));
    TRY(trit_load(f, t, depth, &weights));
    trit_clause clause = hash_weights(&weights, (enum trit_float)dtype, hashes);
    trit_unload(&weights);
    return clause;
}

static trit_clause put_decoded(struct request *q, struct trit_file *f)
{
    struct text *name = &q->field[TENSOR].text;
    if (q->field[TENSOR].type != STRING) return MALFORMED;
    const struct trit_tensor *t = trit_find(f, (struct trit_text){name->bytes, name->size});
    struct hashes hashes;
    if (t == NULL) return "no tensor of this name";
    if (t->is_trit) TRY(decode_trit(q, f, t, &hashes));
    else TRY(trit_read_segment(f, t, 0, NULL, hashes.values));
    begin(q);
    put_integers("{", "shape", t->shape, t->rank);
    if (t->is_trit) put_bytes(", ", "levels", hashes.levels, TRIT_DIGEST);
    if (t->is_trit) put_bytes(", ", "codes", hashes.codes, TRIT_DIGEST);
    put_bytes(", ", "values", hashes.values, TRIT_DIGEST);
    putchar('}');
    return NULL;
}

/* Opens the file of the request for *use*, and closes it. */
static trit_clause with_file(struct request *q, trit_clause (*use)(struct request *, struct trit_file *))
{
    struct trit_file file;
    unsigned logged = 0;
    const char *path;
    TRY(get_path(q, &path));
    trit_clause clause = trit_open(&file, path, log_finding, &logged);
    if (clause == NULL) clause = use(q, &file);
    trit_close(&file);
    return clause;
}

static trit_clause do_header(struct request *q) { return with_file(q, put_header); }
static trit_clause do_decode(struct request *q) { return with_file(q, put_decoded); }

static void put_array(const struct request *q, const char *key, const void *bytes, size_t n)
{
    begin(q);
    put_bytes("{", key, bytes, n);
    putchar('}');
}

static trit_clause do_pack(struct request *q)
{
    uint64_t rows, columns;
    struct text *trits = &q->field[TRITS].text;
    TRY(get_matrix(q, TRITS, &rows, &columns));
    size_t n = (size_t)(trit_byte_rows(rows) * columns); /* at most the trits that came */
    uint8_t *packed = malloc(n + 1);
    if (packed == NULL) return NO_MEMORY;
    trit_clause clause = trit_pack((const int8_t *)trits->bytes, (size_t)rows, (size_t)columns, packed);
    if (clause == NULL) put_array(q, "packed", packed, n);
    free(packed);
    return clause;
}

static trit_clause do_unpack(struct request *q)
{
    uint64_t rows, columns;
    struct text *packed = &q->field[PACKED].text;
    TRY(get_matrix(q, PACKED, &rows, &columns));
    size_t n = (size_t)(rows * columns); /* at most 5 times the bytes that came */
    int8_t *trits = malloc(n + 1);
    if (trits == NULL) return NO_MEMORY;
    trit_clause clause = trit_unpack(packed->bytes, (size_t)rows, (size_t)columns, trits);
    if (clause == NULL) put_array(q, "trits", trits, n);
    free(trits);
    return clause;
}

static trit_clause do_split(struct request *q)
{
    uint64_t depth;
    struct text *levels = &q->field[LEVELS].text;
    if (q->field[DEPTH].negative) return "TEN-2";
    TRY(get_integer(&q->field[DEPTH], &depth));
    TRY(get_bytes(&q->field[LEVELS]));
    if (depth < 1 || depth > TRIT_MAX_DEPTH) return "TEN-2";
    int8_t *plane = malloc(levels->size + 1);
    if (plane == NULL) return NO_MEMORY;
    trit_clause clause = NULL;
    for (unsigned p = 0; p < depth && clause == NULL; p++) {
        clause = trit_split((const int8_t *)levels->bytes, levels->size, (unsigned)depth, p, plane);
        if (clause != NULL) break; /* in the first plane: it checks all levels */
        if (p == 0) begin(q);
        fputs(p == 0 ? "{\"planes\": [" : ", ", stdout);
        put_hex(plane, levels->size);
    }
    if (clause == NULL) fputs("]}", stdout);
    free(plane);
    return clause;
}

static trit_clause do_join(struct request *q)
{
    struct value *list = &q->field[PLANES];
    const int8_t *planes[TRIT_MAX_DEPTH];
    if (list->type != LIST) return MALFORMED;
    if (list->count < 1 || list->count > TRIT_MAX_DEPTH) return "TEN-2";
    if (list->strings != list->count) return MALFORMED;
    for (size_t i = 0; i < list->count; i++) {
        TRY(unhex(&list->items[i]));
        if (list->items[i].size != list->items[0].size) return MALFORMED;
        planes[i] = (const int8_t *)list->items[i].bytes;
    }
    size_t n = list->items[0].size;
    int8_t *levels = malloc(n + 1);
    if (levels == NULL) return NO_MEMORY;
    trit_clause clause = trit_join(planes, (unsigned)list->count, n, levels);
    if (clause == NULL) put_array(q, "levels", levels, n);
    free(levels);
    return clause;
}

/* The two levels. */

static const struct command {
    const char *name;
    trit_clause (*run)(struct request *);
} COMMANDS[] = {{"verify", do_verify}, {"header", do_header}, {"decode", do_decode}, {"pack", do_pack},
                {"unpack", do_unpack}, {"split", do_split},   {"join", do_join}};

static trit_clause run(struct request *q)
{
    const struct value *cmd = &q->field[CMD];
    for (size_t i = 0; cmd->type == STRING && i < sizeof COMMANDS / sizeof *COMMANDS; i++)
        if (is(&cmd->text, COMMANDS[i].name)) return COMMANDS[i].run(q);
    return "no such cmd";
}

static void answer(uint8_t *line, bool whole)
{
    struct request q;
    trit_clause clause = whole && read_request(line, &q) ? run(&q) : "not a request";
    if (!whole) q.field[SEQ].type = ABSENT;
    int status = trit_status(clause); /* 2, too, for READ-4: a file that ended was not read */
    if (status != 0 && status != 2) {
        begin(&q);
        printf("{\"error\": \"%s\"}", clause);
    } else if (clause != NULL) {
        put_seq(&q);
        printf(", \"skipped\": \"%s\"", clause);
    }
    fputs("}\n", stdout);
}

/* The next line without its end, and a 0 after it; *whole* is false where that is not all of it. False at the end of the input. */
static bool read_line(uint8_t *line, bool *whole)
{
    size_t n = 0;
    int c = getchar();
    if (c == EOF) return false;
    for (*whole = true; c != EOF && c != '\n'; c = getchar()) {
        if (n < MAX_REQUEST && c != '\0') line[n++] = (uint8_t)c;
        else *whole = false;
    }
    line[n] = 0;
    return true;
}

static int serve(void)
{
    uint8_t *line = malloc(MAX_REQUEST + 1);
    bool whole;
    if (line == NULL) return 2;
    while (read_line(line, &whole)) {
        answer(line, whole);
        if (fflush(stdout) != 0) break;
    }
    free(line);
    return ferror(stdin) || ferror(stdout) ? 2 : 0;
}

static int verify(const char *path)
{
    trit_clause clause = verify_path(path);
    if (trit_status(clause) == 2) {
        fprintf(stderr, "trit: %s\n", clause);
        return 2;
    }
    put_verdict(clause);
    putchar('\n');
    return fflush(stdout) == 0 ? trit_status(clause) : 2;
}

int main(int count, char **arguments)
{
    if (count == 3 && strcmp(arguments[1], "verify") == 0) return verify(arguments[2]);
    if (count == 2 && strcmp(arguments[1], "serve") == 0) return serve();
    fputs("usage: trit verify FILE\n       trit serve\n", stderr);
    return 2;
}
