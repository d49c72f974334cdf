/* main.c - the two levels of docs/protocol.md: `trit verify FILE` and `trit serve`. */
#include "trit.c"

#include <ctype.h>
#include <limits.h>

/* Requests: a line of JSON, kept as the pairs in it. A list is several pairs of one key, at most five. All JSON is
 * read as it should be, and so is some of what is none. */

enum { ROOM = 64 };
static struct pair {
    char *key, *text; /* an integer or null goes on with whatever stands after it */
} pairs[ROOM];
static size_t pair_count;
static char NONE[] = ""; /* where a key has no value */
static const char MALFORMED[] = "not a request of this kind";

static int read_hex(const char *text, size_t digits) {
    char copy[5] = "", *end;
    long number = strtol(strncpy(copy, text, digits), &end, 16);
    return end == copy + digits && isxdigit((unsigned char)*copy) ? (int)number : -1;
}

/* The code point, not 0, that the escape at *at means, or -1; *at moves to its last character. */
static int read_escape(char **at) {
    static const char letters[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
    const char *letter = memchr(letters, *++*at, sizeof letters - 1);
    if (letter != NULL) return meanings[letter - letters];
    int unit = **at == 'u' ? read_hex(*at + 1, 4) : -1;
    if (unit <= 0) return -1;
    *at += 4;
    if (unit < 0xD800 || unit > 0xDFFF) return unit;
    int low = strncmp(*at + 1, "\\u", 2) == 0 ? read_hex(*at + 3, 4) : -1; /* two surrogates: one code point */
    if (unit > 0xDBFF || low < 0xDC00 || low > 0xDFFF) return -1;
    *at += 6;
    return 0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00);
}

static char *put_utf8(char *to, int point) {
    static const int lead[] = {0, 0xC0, 0xE0, 0xF0};
    int more = point < 0x80 ? 0 : point < 0x800 ? 1 : point < 0x10000 ? 2 : 3;
    *to++ = (char)(lead[more] | point >> 6 * more);
    while (more-- > 0) *to++ = (char)(0x80 | (point >> 6 * more & 0x3F));
    return to;
}

/* Unescapes a string where it stands, from after its first quotation mark on; NULL where it is none. */
static char *read_string(char **at) {
    char *text = *at, *to = *at; /* never ahead of *at: an escape is longer than what it means */
    for (; **at != '"'; ++*at) {
        int point = **at == '\\' ? read_escape(at) : 0;
        if (**at == 0 || point < 0) return NULL;
        if (point > 0) to = put_utf8(to, point);
        else *to++ = **at;
    }
    ++*at;
    *to = 0;
    return text;
}

static bool read_request(char *at) {
    char *key = NULL;
    size_t depth = 0, values = 0;
    pair_count = 0;
    do {
        at += strspn(at, " \t\r\n,");
        char *text = at, first = *at;
        if (first == 0 || (depth == 0 && first != '{')) return false;
        at++;
        if (first == '{' || first == '[') depth++;
        else if (first == '}' || first == ']') depth--;
        else {
            if (first == '"') text = read_string(&at);
            else at += strcspn(at, " \t\r\n,:]}");
            if (text == NULL || pair_count == ROOM) return false;
            at += strspn(at, " \t\r\n");
            if (*at == ':' && depth == 1) {
                key = text;
                values = 0;
            } else if (*at != ':' && depth <= 2 && key != NULL && values++ <= MAX_DEPTH)
                pairs[pair_count++] = (struct pair){key, text};
            at += *at == ':';
        }
    } while (depth > 0);
    return at[strspn(at, " \t\r\n")] == 0;
}

/* Value number *i* of a key, or NONE. */
static char *value_of(const char *key, size_t i) {
    for (size_t pair = 0; pair < pair_count; pair++)
        if (strcmp(pairs[pair].key, key) == 0 && i-- == 0) return pairs[pair].text;
    return NONE;
}

/* The integer of a key, or the nearest that fits; *otherwise* where it has none. */
static long long integer_of(const char *key, long long otherwise) {
    char *text = value_of(key, 0), *end;
    long long integer = strtoll(text, &end, 10);
    return end != text ? integer : otherwise;
}

/* Value number *i* of a key, hexadecimal digits, as bytes in its place; NULL where it is something else. */
static int8_t *bytes_of(const char *key, size_t i, size_t *n) {
    char *text = value_of(key, i);
    size_t digits = strlen(text);
    if (text == NONE || digits % 2 != 0) return NULL;
    for (*n = 0; *n < digits / 2; ++*n) {
        int byte = read_hex(text + 2 * *n, 2);
        if (byte < 0) return NULL;
        text[*n] = (char)byte;
    }
    return (int8_t *)text;
}

/* A matrix of trits, *per_byte* rows to a byte: its bytes, and its rows and columns. */
static clause get_matrix(const char *key, uint64_t per_byte, int8_t **bytes, uint64_t shape[2]) {
    long long rows = integer_of("rows", -1), columns = integer_of("columns", -1);
    size_t n;
    *bytes = bytes_of(key, 0, &n);
    if (*bytes == NULL || rows < 0 || columns < 0) return MALFORMED;
    shape[0] = (uint64_t)rows;
    shape[1] = (uint64_t)columns;
    uint64_t height = ceil_div(shape[0], per_byte);
    bool fits = height == 0 || columns == 0 ? n == 0 : n % shape[1] == 0 && n / shape[1] == height;
    return fits ? NULL : "PACK-1";
}

/* Commands: each prints its result, all but the last bracket, or prints nothing and returns why. What is to stand
 * *before* is printed first. */

static void put_byte(int byte) { printf("%02x", (uint8_t)byte); }

static void put_hex(const char *before, const void *bytes, size_t n) {
    printf("%s\"", before);
    for (size_t i = 0; i < n; i++) put_byte(((const uint8_t *)bytes)[i]);
    putchar('"');
}

static void put_integers(const char *before, const uint64_t *numbers, unsigned n) {
    printf("%s[", before);
    for (unsigned i = 0; i < n; i++) printf("%s%" PRIu64, i == 0 ? "" : ", ", numbers[i]);
    putchar(']');
}

static void put_text(const char *before, const struct file *f, const struct value *v) {
    printf("%s\"", before);
    for (size_t i = 0; i < v->number; i++) {
        int c = f->front[v->body + i];
        printf(c < 0x20 || c == '"' || c == '\\' ? "\\u%04x" : "%c", c);
    }
    putchar('"');
}

static clause check_trits(const int8_t *trits, uint64_t n) {
    /* "A trit MUST be -1, 0 or +1." */
    for (size_t i = 0; i < n; i++)
        if (trits[i] < -1 || trits[i] > 1) return "TRIT-1";
    return NULL;
}

static clause pack(void) {
    uint64_t shape[2];
    int8_t *trits;
    TRY(get_matrix("trits", 1, &trits, shape));
    TRY(check_trits(trits, shape[0] * shape[1]));
    fputs(", \"result\": {\"packed\": \"", stdout);
    for (uint64_t at = 0; at < ceil_div(shape[0], 5) * shape[1]; at++) {
        uint64_t row = at / shape[1] * 5;
        int sum = 0;
        /* "byte[r, j] = sum over i = 0..4 of (t[5r+i, j] + 1) * 3^i" */
        for (unsigned i = 0; i < 5; i++, row++)
            sum += ((row < shape[0] ? trits[row * shape[1] + at % shape[1]] : 0) + 1) * POWER[i];
        put_byte(sum);
    }
    putchar('"');
    return NULL;
}

static clause unpack(void) {
    uint64_t shape[2];
    int8_t *bytes;
    TRY(get_matrix("packed", 5, &bytes, shape));
    const uint8_t *packed = (const uint8_t *)bytes;
    for (uint64_t at = 0; at < ceil_div(shape[0], 5) * shape[1]; at++)
        TRY(check_packed(packed[at], at, shape[0], shape[1]));
    fputs(", \"result\": {\"trits\": \"", stdout);
    for (uint64_t i = 0; i < shape[0] * shape[1]; i++)
        put_byte(trit_at(packed, i / shape[1], shape[1], i % shape[1]));
    putchar('"');
    return NULL;
}

static clause split(void) {
    long long depth = integer_of("depth", 0);
    size_t n;
    int8_t *levels = bytes_of("levels", 0, &n);
    if (levels == NULL) return MALFORMED;
    if (depth < 1 || depth > MAX_DEPTH) return "TEN-2";
    int H = largest_level((uint64_t)depth);
    /* "A level of depth d MUST lie in -H..H, where H = (3^d - 1)/2." */
    for (size_t i = 0; i < n; i++)
        if (levels[i] < -H || levels[i] > H) return "TRIT-2";
    for (unsigned p = 0; p < depth; p++) {
        fputs(p == 0 ? ", \"result\": {\"planes\": [\"" : "\", \"", stdout);
        for (size_t i = 0; i < n; i++) put_byte(digit(levels[i] + H, p));
    }
    fputs("\"]", stdout);
    return NULL;
}

static clause join(void) {
    int8_t *planes[MAX_DEPTH];
    size_t depth = 0, n, size = 0;
    for (; value_of("planes", depth) != NONE; depth++) {
        if (depth == MAX_DEPTH) return "TEN-2";
        planes[depth] = bytes_of("planes", depth, &n);
        if (planes[depth] == NULL || (depth > 0 && n != size)) return MALFORMED;
        TRY(check_trits(planes[depth], n));
        size = n;
    }
    if (depth == 0) return "TEN-2";
    fputs(", \"result\": {\"levels\": \"", stdout);
    for (size_t i = 0; i < size; i++) {
        int k = 0;
        for (size_t p = depth; p-- > 0;) k = 3 * k + planes[p][i];
        put_byte(k);
    }
    putchar('"');
    return NULL;
}

static void put_tensor(const char *before, const struct file *f, const struct tensor *t) {
    put_text(before, f, &t->name);
    printf(", \"kind\": \"%s\", \"dtype\": \"%s\"", t->is_trit ? "trit" : "raw", DTYPES[t->dtype].name);
    put_integers(", \"shape\": ", t->shape, t->rank);
    put_integers(", \"offsets\": ", t->offset, t->segments);
    if (t->is_trit) {
        printf(", \"depth\": %" PRIu64 ", \"shift\": %" PRIu64, t->depth, t->shift);
        printf(", \"group_size\": %" PRIu64, t->group_size);
        put_hex(", \"codebook\": ", t->codebook, 4 * STEPS);
    }
    putchar('}');
}

static clause put_header(struct file *f) {
    size_t at = f->metadata.body;
    put_hex(", \"result\": {\"identity\": ", f->identity, DIGEST);
    printf(", \"version\": [1, %u], \"metadata\": {", f->minor);
    for (uint64_t i = 0; i < f->metadata.number; i++) {
        struct value key = next(f, &at), value = next(f, &at);
        put_text(i == 0 ? "" : ", ", f, &key);
        put_text(": ", f, &value);
    }
    fputs("}, \"tensors\": [", stdout);
    for (size_t i = 0; i < f->count; i++)
        put_tensor(i == 0 ? "{\"name\": " : ", {\"name\": ", f, &f->tensors[i]);
    putchar(']');
    return NULL;
}

static void add_number(struct sha256 *hash, uint32_t number, unsigned bytes) {
    for (unsigned i = 0; i < bytes; i++) sha256_add(hash, &(uint8_t){(uint8_t)(number >> 8 * i)}, 1);
}

static void put_hash(const char *before, struct sha256 *hash) {
    uint8_t digest[DIGEST];
    sha256_end(hash, digest);
    put_hex(before, digest, DIGEST);
}

static void put_weights(const struct tensor *t, uint64_t depth, unsigned dtype) {
    struct sha256 levels = SHA256_START, codes = SHA256_START, values = SHA256_START;
    for (uint64_t row = 0; row < t->rows; row++) {
        for (uint64_t g = 0; g < t->G; g++) add_number(&codes, code_at(t, row, g), 1);
        for (uint64_t j = 0; j < t->K; j++) {
            add_number(&levels, (uint32_t)level_at(t, depth, row, j), 1);
            add_number(&values, value_at(t, depth, dtype, row, j), DTYPES[dtype].bytes);
        }
    }
    put_hash(", \"levels\": ", &levels);
    put_hash(", \"codes\": ", &codes);
    put_hash(", \"values\": ", &values);
}

static clause decode_trit(struct file *f, struct tensor *t) {
    const char *name = value_of("dtype", 0);
    long long depth = integer_of("depth", MAX_DEPTH); /* null is none */
    unsigned dtype = 0;
    while (dtype < FLOATS && strcmp(name, DTYPES[dtype].name) != 0) dtype++;
    if (dtype == FLOATS) return MALFORMED;
    if (depth < 1 || depth > MAX_DEPTH) return "TEN-2";
    uint64_t top = (uint64_t)depth < t->depth ? (uint64_t)depth : t->depth;
    TRY(load(f, t, top));
    put_integers(", \"result\": {\"shape\": ", t->shape, t->rank);
    put_weights(t, top, dtype);
    return NULL;
}

static clause decode(struct file *f) {
    const char *name = value_of("tensor", 0);
    struct tensor *t = f->tensors, *stop = t + f->count;
    while (t < stop && !is(f, &t->name, name)) t++;
    if (t == stop) return "no tensor of this name";
    if (t->is_trit) return decode_trit(f, t);
    TRY(read_segment(f, t, 0, NULL));
    put_integers(", \"result\": {\"shape\": ", t->shape, t->rank);
    put_hex(", \"values\": ", t->digest[0], DIGEST);
    return NULL;
}

/* The two levels */

static clause with_file(const char *path, clause (*use)(struct file *)) {
    struct file file;
    clause found = open_file(&file, path);
    if (found == NULL) found = use(&file);
    close_file(&file);
    return found;
}

static clause run(const char *command) {
    const char *path = value_of("file", 0);
    if (strcmp(command, "verify") == 0) return with_file(path, verify);
    if (strcmp(command, "header") == 0) return with_file(path, put_header);
    if (strcmp(command, "decode") == 0) return with_file(path, decode);
    if (strcmp(command, "pack") == 0) return pack();
    if (strcmp(command, "unpack") == 0) return unpack();
    if (strcmp(command, "split") == 0) return split();
    if (strcmp(command, "join") == 0) return join();
    return "no such cmd";
}

static void put_verdict(const char *before, clause found) {
    static const char *const VERDICTS[] = {"valid", "invalid", "", "unsupported"};
    printf("%s{\"verdict\": \"%s\", \"clause\": ", before, VERDICTS[status_of(found)]);
    printf(found == NULL ? "null" : "\"%s\"", found);
}

static void answer(char *line) {
    long long seq = read_request(line) ? integer_of("seq", LLONG_MIN) : LLONG_MIN;
    const char *command = value_of("cmd", 0);
    if (seq == LLONG_MIN) {
        puts("{\"seq\": null, \"skipped\": \"not a request\"}");
        return;
    }
    printf("{\"seq\": %lld", seq);
    clause found = run(command);
    if (status_of(found) == UNREADABLE) printf(", \"skipped\": \"%s\"", found);
    else if (strcmp(command, "verify") == 0) put_verdict(", \"result\": ", found);
    else if (found != NULL) printf(", \"result\": {\"error\": \"%s\"", found);
    puts(status_of(found) == UNREADABLE ? "}" : "}}");
}

static int verify_path(const char *path) {
    clause found = with_file(path, verify);
    if (status_of(found) == UNREADABLE) {
        fprintf(stderr, "trit: %s\n", found);
    } else {
        put_verdict("", found);
        puts("}");
    }
    return status_of(found);
}

int main(int count, char **arguments) {
    char *line = NULL;
    size_t room = 0;
    if (count == 3 && strcmp(arguments[1], "verify") == 0) return verify_path(arguments[2]);
    if (count != 2 || strcmp(arguments[1], "serve") != 0) {
        fputs("usage: trit verify FILE\n       trit serve\n", stderr);
        return UNREADABLE;
    }
    setvbuf(stdout, NULL, _IOLBF, BUFSIZ); /* an answer is a line */
    while (getline(&line, &room, stdin) > 0) answer(line);
    free(line);
    return ferror(stdin) || ferror(stdout) ? UNREADABLE : VALID;
}
