/* trit.c - reads, verifies and decodes .trit files, chapter by chapter as SPEC.md, whose sentences are quoted
 * above the lines that obey them. Include it, as main.c does: everything is static.
 *
 * A function that can find fault returns NULL, the id of the requirement that is broken ("PACK-2"), or in lower
 * case what kept it from finding out ("cannot read the file"); details go to standard error. Nothing depends on
 * byte order, the signedness of char, or the width of size_t. */
#define _POSIX_C_SOURCE 200809L /* fseeko, S_ISREG, getline */
#define _FILE_OFFSET_BITS 64

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "sha256.c"

typedef const char *clause;
#define TRY(call) do { clause broken_ = (call); if (broken_ != NULL) return broken_; } while (0)

/* 1.4 Limits */

#define MAX_ELEMENTS ((uint64_t)1 << 48)
enum { PREAMBLE = 64, MAX_HEADER = 67108864, MAX_NESTING = 8, MAX_TENSORS = 1048576, MAX_NAME = 512 };
enum { MAX_PAIRS = 1024, MAX_METADATA_VALUE = 1048576, MAX_RANK = 8, MAX_GROUP = 65536, MAX_DEPTH = 4 };
enum { STEPS = 27, CODE_PLANES = 3, MAX_SEGMENTS = CODE_PLANES + MAX_DEPTH };
typedef char off_t_has_64_bits[sizeof(off_t) == 8 ? 1 : -1];

struct value { /* in the header (6.2) */
    enum type { NOTHING, INT, STR, BIN, ARRAY, MAP } type;
    uint64_t number; /* the integer, or how many bytes, values or pairs */
    uint64_t inside; /* how many values are in it: two for a pair */
    size_t at, body; /* where in the file it begins, and where its bytes, values or pairs do */
};

struct tensor { /* an entry of the directory (6.4) */
    bool is_trit;
    struct value name;
    unsigned dtype, rank, segments;
    uint64_t shape[MAX_RANK], elements, offset[MAX_SEGMENTS];
    const uint8_t *digest[MAX_SEGMENTS];
    uint64_t depth, shift, group_size, rows, K, G; /* from here on, of a trit tensor */
    const uint8_t *codebook;
    uint8_t *plane[MAX_SEGMENTS]; /* in the order of 5.2; NULL until they are loaded */
};

struct file {
    FILE *stream;
    uint64_t size;
    uint8_t *front, identity[DIGEST]; /* front: preamble and header, up to byte *end* */
    size_t end, count;                /* count: of tensors */
    unsigned minor;
    struct value metadata;
    struct tensor *tensors;
};

static uint64_t little(const uint8_t *bytes, unsigned size) {
    uint64_t value = 0;
    while (size-- > 0) value = value << 8 | bytes[size];
    return value;
}

static uint64_t ceil_div(uint64_t a, uint64_t b) { return a / b + (a % b != 0); } /* a + b - 1 could wrap */

/* 2 Trits and levels */

static const int POWER[] = {1, 3, 9, 27, 81, 243}; /* of 3 */

static int largest_level(uint64_t depth) { return (POWER[depth] - 1) / 2; } /* H */

static int digit(int number, uint64_t place) { return number / POWER[place] % 3 - 1; } /* base 3, as a trit */

/* 3 Packing */

/* "t[5r+i, j] = byte[r, j] // 3^i % 3 - 1" */
static int trit_at(const uint8_t *plane, uint64_t row, uint64_t columns, uint64_t j) {
    return digit(plane[row / 5 * columns + j], row % 5);
}

/* Checks a byte of a plane, at *at* in it. */
static clause check_packed(uint8_t byte, uint64_t at, uint64_t rows, uint64_t columns) {
    uint64_t used = rows - at / columns * 5; /* digits; from 5 on all are */
    /* "Every byte of a packed plane MUST be at most 242." */
    if (byte > 242) return "PACK-2";
    /* "A trit that pads the last byte row MUST be 0." */
    if (used < 5 && byte / POWER[used] != (POWER[5 - used] - 1) / 2) return "PACK-3";
    return NULL;
}

/* 4 Codebook and codes */

enum { F32, F16, BF16, FLOATS, BOOL = FLOATS }; /* those of trit tensors come first in the table of 6.4 */

static uint32_t step_at(const uint8_t *codebook, unsigned c) { return (uint32_t)little(codebook + 4 * c, 4); }

/* "A weight MUST decode to step[c] * 3^shift * k, exactly, in binary32."
 * A step has 18 significant bits (CB-4), *multiple* at most 6 (3^shift * |k| <= 40): 24 hold the product, which is
 * neither rounded nor subnormal; from 2^128 on it is infinity, which CB-5 keeps out. All are bit patterns. */
static uint32_t multiply(uint32_t step, int multiple) {
    float value;
    memcpy(&value, &step, sizeof value);
    /* "A weight of level 0 MUST decode to +0." */
    value *= (float)multiple; /* no step is negative */
    memcpy(&step, &value, sizeof step);
    return step;
}

/* value / 2^places, to nearest, ties to even; places is 1 to 31. */
static uint32_t round_off(uint32_t value, unsigned places) {
    uint32_t quotient = value >> places, rest = value - (quotient << places), half = UINT32_C(1) << (places - 1);
    return quotient + (rest > half || (rest == half && quotient % 2 == 1));
}

/* "A weight decoded to binary16 or bfloat16 MUST be the exact value rounded once, to nearest, ties to even."
 * A carry out of the significand goes into the exponent, up to that of infinity, as it should. */
static uint32_t round_to(unsigned dtype, uint32_t binary32) {
    uint32_t sign = (binary32 >> 31) << 15, magnitude = binary32 & 0x7FFFFFFF, exponent = magnitude >> 23;
    if (dtype == F32) return binary32;
    if (dtype == BF16) return sign | round_off(magnitude, 16);
    if (exponent >= 127 + 16) return sign | 0x7C00;
    if (exponent >= 127 - 14) return sign | round_off(magnitude - ((uint32_t)(127 - 15) << 23), 13);
    if (exponent < 127 - 25) return sign; /* below 2^-25, half of the least subnormal */
    return sign | round_off((magnitude & 0x7FFFFF) | 0x800000, 13 + (127 - 14) - exponent);
}

static clause check_codebook(const uint8_t *codebook, int multiple, unsigned dtype) {
    static const uint32_t infinity[FLOATS] = {0x7F800000, 0x7C00, 0x7F80};
    uint32_t step = 0;
    for (unsigned c = 0; c < STEPS; c++) {
        uint32_t before = step;
        step = step_at(codebook, c);
        /* "Every step MUST be positive, normal and finite." */
        if (step < 0x00800000 || step > 0x7F7FFFFF) return "CB-2";
        /* "The steps MUST be strictly increasing." */
        if (step <= before) return "CB-3";
        /* "The low six bits of every step's significand MUST be zero." */
        if (step % 64 != 0) return "CB-4";
    }
    /* "The largest value, `step[26] * 3^shift * H`, rounded to the tensor's dtype, MUST be finite." */
    return round_to(dtype, multiply(step, multiple)) == infinity[dtype] ? "CB-5" : NULL;
}

/* 5 Trit tensors: what is in one whose planes are loaded */

/* "A code MUST lie in 0..26." */
static unsigned code_at(const struct tensor *t, uint64_t row, uint64_t g) {
    int c = 0;
    for (unsigned p = CODE_PLANES; p-- > 0;) c = 3 * c + trit_at(t->plane[p], row, t->G, g) + 1;
    return (unsigned)c;
}

/* "The top d' planes of a tensor of depth d MUST be read as a tensor of depth d' whose shift is greater by
 * d - d'." */
static int level_at(const struct tensor *t, uint64_t depth, uint64_t row, uint64_t j) {
    int k = 0;
    for (unsigned p = 0; p < depth; p++) k = 3 * k + trit_at(t->plane[CODE_PLANES + p], row, t->K, j);
    return k;
}

static uint32_t value_at(const struct tensor *t, uint64_t depth, unsigned dtype, uint64_t row, uint64_t j) {
    uint32_t step = step_at(t->codebook, code_at(t, row, j / t->group_size));
    uint64_t shift = t->shift + t->depth - depth;
    return round_to(dtype, multiply(step, POWER[shift] * level_at(t, depth, row, j)));
}

/* 6.1 Preamble */

/* Says at which byte of the file *what* is broken, and gives it back. */
static clause broken(clause what, uint64_t at) {
    fprintf(stderr, "%s at byte %" PRIu64 "\n", what, at);
    return what;
}

static clause broken_in(const struct file *f, const struct tensor *t, clause what, uint64_t at) {
    fprintf(stderr, "tensor %.*s: ", (int)t->name.number, (const char *)f->front + t->name.body);
    return broken(what, at);
}

static clause read_at(struct file *f, uint64_t at, uint8_t *bytes, size_t size) {
    if (fseeko(f->stream, (off_t)at, SEEK_SET) == 0 && fread(bytes, 1, size, f->stream) == size) return NULL;
    /* "A reader MUST report as an error a file that ends before what its header promises." */
    return ferror(f->stream) ? "cannot read the file" : broken("READ-4", at);
}

static clause read_preamble(struct file *f, uint8_t bytes[PREAMBLE]) {
    /* "A file MUST be at least 64 bytes long." */
    if (f->size < PREAMBLE) return broken("PRE-1", f->size);
    TRY(read_at(f, 0, bytes, PREAMBLE));
    /* "The file MUST begin with the eight bytes of the magic." */
    if (memcmp(bytes, "\x89TRIT\r\n\x1A", 8) != 0) return broken("PRE-2", 0);
    /* "The major version MUST be 1." */
    if (little(bytes + 8, 2) != 1) return broken("PRE-3", 8);
    /* "The flags MUST be 0." */
    if (little(bytes + 12, 4) != 0) return broken("PRE-4", 12);
    /* "The header size MUST lie in 1..67108864." */
    uint64_t header_size = little(bytes + 16, 8);
    if (header_size < 1 || header_size > MAX_HEADER) return broken("PRE-5", 16);
    /* "The file size MUST equal the length of the file." */
    if (little(bytes + 24, 8) != f->size) return broken("PRE-6", 24);
    /* "The header MUST end within the file." */
    if (header_size > f->size - PREAMBLE) return broken("PRE-7", 16);
    f->minor = (unsigned)little(bytes + 10, 2);
    f->end = PREAMBLE + (size_t)header_size;
    return NULL;
}

static clause read_front(struct file *f) {
    uint8_t preamble[PREAMBLE];
    struct sha256 hash = SHA256_START;
    TRY(read_preamble(f, preamble));
    f->front = malloc(f->end);
    if (f->front == NULL) return "not enough memory for the header";
    TRY(read_at(f, 0, f->front, f->end));
    sha256_add(&hash, f->front + PREAMBLE, f->end - PREAMBLE);
    sha256_end(&hash, f->identity);
    /* "The SHA-256 of the header's bytes MUST equal the digest in the preamble." */
    return memcmp(f->identity, preamble + 32, DIGEST) != 0 ? broken("PRE-8", 32) : NULL;
}

/* 6.2 Canonical MessagePack: one pass proves it and allocates nothing; later ones need not look again */

/* The table of shortest forms: the number is in the first byte itself, or in the *width* bytes after it. */
static const struct form {
    unsigned first; /* byte; those of this form end before that of the next */
    enum type type;
    unsigned width;
    uint64_t least; /* number that needs this form */
} FORMS[] = {
    {0x00, INT, 0, 0},       {0x80, MAP, 0, 0},         {0x90, ARRAY, 0, 0},       {0xA0, STR, 0, 0},
    {0xC0, NOTHING, 0, 0},   {0xC4, BIN, 1, 0},         {0xC5, BIN, 2, 1 << 8},    {0xC6, BIN, 4, 1 << 16},
    {0xC7, NOTHING, 0, 0},   {0xCC, INT, 1, 1 << 7},    {0xCD, INT, 2, 1 << 8},    {0xCE, INT, 4, 1 << 16},
    {0xCF, INT, 8, 1LL << 32}, {0xD0, NOTHING, 0, 0},   {0xD9, STR, 1, 1 << 5},    {0xDA, STR, 2, 1 << 8},
    {0xDB, STR, 4, 1 << 16}, {0xDC, ARRAY, 2, 1 << 4},  {0xDD, ARRAY, 4, 1 << 16}, {0xDE, MAP, 2, 1 << 4},
    {0xDF, MAP, 4, 1 << 16}, {0xE0, NOTHING, 0, 0},     {0x100, NOTHING, 0, 0},
};

/* Reads the head of a value: of an integer, all of it. */
static clause read_head(const struct file *f, size_t at, struct value *v) {
    const struct form *form = FORMS;
    *v = (struct value){.at = at};
    /* "The header MUST be exactly one value, with nothing cut off and nothing after it." */
    if (at == f->end) return broken("MP-5", at);
    while (f->front[at] >= form[1].first) form++;
    /* "Every value in the header MUST be an unsigned integer, a str, a bin, an array or a map." */
    if (form->type == NOTHING) return broken("MP-1", at);
    if (form->width >= f->end - at) return broken("MP-5", at);
    v->type = form->type;
    v->body = at + 1 + form->width;
    v->number = (uint64_t)f->front[at] - form->first;
    while (++at < v->body) v->number = v->number << 8 | f->front[at]; /* from 0: it has one first byte */
    v->inside = v->type == ARRAY ? v->number : v->type == MAP ? 2 * v->number : 0;
    /* "Every integer and every length MUST be in its shortest form." */
    return v->number < form->least ? broken("MP-2", v->at) : NULL;
}

static bool is(const struct file *f, const struct value *v, const char *text) {
    return v->number == strlen(text) && memcmp(f->front + v->body, text, strlen(text)) == 0;
}

static bool is_above(const struct file *f, const struct value *a, const struct value *b) {
    size_t both = (size_t)(a->number < b->number ? a->number : b->number);
    int order = memcmp(f->front + a->body, f->front + b->body, both);
    return order > 0 || (order == 0 && a->number > b->number);
}

/* The code point at *s*, and how many of *n* bytes it takes: 0 where they are not well-formed UTF-8. */
static size_t read_utf8(const uint8_t *s, size_t n, uint32_t *point) {
    static const uint32_t least[5] = {0, 0, 0x80, 0x800, 0x10000}; /* that needs so many bytes */
    size_t size = s[0] < 0x80 ? 1 : s[0] < 0xC0 ? 0 : s[0] < 0xE0 ? 2 : s[0] < 0xF0 ? 3 : s[0] < 0xF8 ? 4 : 0;
    if (size == 0 || size > n) return 0;
    *point = size == 1 ? s[0] : s[0] & (0x7FU >> size);
    for (size_t i = 1; i < size; i++) {
        if ((s[i] & 0xC0) != 0x80) return 0;
        *point = *point << 6 | (s[i] & 0x3F);
    }
    bool surrogate = *point >= 0xD800 && *point <= 0xDFFF;
    return *point < least[size] || *point > 0x10FFFF || surrogate ? 0 : size;
}

static bool is_control(uint32_t point) {
    return point <= 0x1F || (point >= 0x7F && point <= 0x9F) || (point >= 0x2028 && point <= 0x202E) ||
           (point >= 0x2066 && point <= 0x2069) || point == 0xFEFF;
}

static clause check_text(const struct file *f, const struct value *v, bool is_name) {
    uint32_t point;
    for (size_t at = v->body, end = at + (size_t)v->number, size; at < end; at += size) {
        size = read_utf8(f->front + at, end - at, &point);
        /* "Every str MUST be well-formed UTF-8." */
        if (size == 0) return broken("MP-4", at);
        /* "A name or a metadata key MUST NOT hold a control character." */
        if (is_name && is_control(point)) return broken("NAME-2", at);
    }
    return NULL;
}

/* Reads an integer, a str, a bin, or the head of an array or map, and moves *at past it. */
static clause read_value(const struct file *f, size_t *at, struct value *v) {
    TRY(read_head(f, *at, v));
    *at = v->body;
    if (v->type != STR && v->type != BIN) return NULL;
    if (v->number > f->end - *at) return broken("MP-5", v->at);
    *at += (size_t)v->number;
    return v->type == STR ? check_text(f, v, false) : NULL;
}

/* Reads the key after *key*, which is of no type before the first. */
static clause read_key(const struct file *f, size_t *at, struct value *key) {
    struct value before = *key;
    TRY(read_head(f, *at, key));
    /* "The keys of a map MUST be str in strictly increasing order of their UTF-8 bytes." */
    if (key->type != STR) return broken("MP-3", key->at); /* whatever else is wrong with it: chapter 9 */
    TRY(read_value(f, at, key));
    return before.type == STR && !is_above(f, key, &before) ? broken("MP-3", key->at) : NULL;
}

/* Checks a value inside of *depth* arrays and maps, and all in it; in a map it is that of *key*. MP-6 bounds the
 * recursion. Chapter 9 has the header's two counts come before what is counted. */
static clause check_value(const struct file *f, size_t *at, unsigned depth, const struct value *key) {
    struct value v, inner = {.type = NOTHING};
    TRY(read_value(f, at, &v));
    if (v.type != ARRAY && v.type != MAP) return NULL;
    /* "Arrays and maps MUST be nested at most 8 deep." */
    if (depth == MAX_NESTING) return broken("MP-6", v.at);
    bool is_metadata = depth == 1 && v.type == MAP && is(f, key, "metadata");
    bool is_directory = depth == 1 && v.type == ARRAY && is(f, key, "tensors");
    /* "The metadata MUST hold at most 1024 pairs." */
    if (is_metadata && v.number > MAX_PAIRS) return broken("HDR-5", v.at);
    /* "The header MUST hold at most 1048576 entries." */
    if (is_directory && v.number > MAX_TENSORS) return broken("HDR-4", v.at);
    for (uint64_t i = 0; i < v.number; i++) {
        if (v.type == MAP) TRY(read_key(f, at, &inner));
        TRY(check_value(f, at, depth + 1, &inner));
    }
    return NULL;
}

/* The next value of a header that is canonical; *at moves past all that is in it. */
static struct value next(const struct file *f, size_t *at) {
    struct value v;
    read_head(f, *at, &v);
    *at = v.body + (v.type == STR || v.type == BIN ? (size_t)v.number : 0);
    for (uint64_t left = v.inside; left > 0; left--) next(f, at);
    return v;
}

/* 6.3 Header */

struct field {
    const char *key;
    enum type type, elements; /* elements: of an array or map */
};

/* The value of a key in a map, of type NOTHING where there is none. */
static struct value find(const struct file *f, const struct value *map, const char *name) {
    size_t at = map->body;
    for (uint64_t pair = 0; pair < map->number; pair++) {
        struct value key = next(f, &at), value = next(f, &at);
        if (is(f, &key, name)) return value;
    }
    return (struct value){.type = NOTHING};
}

/* Reads a map that has to have the keys of the table, by the requirement *all*, and no others. */
static clause read_fields(const struct file *f, const struct value *map, const struct field *table, size_t n,
                          clause all, struct value *values) {
    for (size_t i = 0; i < n; i++) {
        values[i] = find(f, map, table[i].key);
        if (values[i].type == NOTHING) return broken(all, map->at);
    }
    /* "A key that is not in the table of the header, or of the entry's kind, MUST NOT stand there in a file of
     * minor version 0." */
    uint64_t unknown = map->number - n;
    if (unknown > 0 && f->minor == 0) return broken("VER-1", map->at);
    if (unknown > 0) fprintf(stderr, "ignored %" PRIu64 " keys of the map at byte %zu\n", unknown, map->at);
    /* "A value in the header MUST have the type that the tables of this chapter give it." */
    for (size_t i = 0; i < n; i++) {
        size_t at = values[i].body;
        if (values[i].type != table[i].type) return broken("TYPE-1", values[i].at);
        for (uint64_t left = values[i].inside; left > 0; left--)
            if (next(f, &at).type != table[i].elements) return broken("TYPE-1", values[i].at);
    }
    return NULL;
}

static clause check_name(const struct file *f, const struct value *v) {
    /* "A name or a metadata key MUST be 1 to 512 bytes long." */
    if (v->number < 1 || v->number > MAX_NAME) return broken("NAME-1", v->at);
    return check_text(f, v, true);
}

static clause check_metadata(const struct file *f, const struct value *v) {
    size_t at = v->body;
    for (uint64_t i = 0; i < v->number; i++) {
        struct value key = next(f, &at), value = next(f, &at);
        TRY(check_name(f, &key));
        /* "A metadata value MUST be at most 1048576 bytes long." */
        if (value.number > MAX_METADATA_VALUE) return broken("HDR-6", value.at);
    }
    return NULL;
}

/* 6.4 Entries */

static const struct {
    const char *name;
    unsigned bytes; /* an element */
} DTYPES[] = {
    {"F32", 4}, {"F16", 2}, {"BF16", 2}, {"BOOL", 1}, {"U8", 1}, {"I8", 1}, {"F8_E4M3", 1}, {"F8_E5M2", 1},
    {"F8_E8M0", 1}, {"U16", 2}, {"I16", 2}, {"U32", 4}, {"I32", 4}, {"U64", 8}, {"I64", 8}, {"F64", 8},
    {"C64", 8}, {"", 0},
};

/* The keys of an entry; a raw one has the first RAW of them. */
enum { DTYPE, KIND, NAME, SHAPE, SHA256, RAW, CODEBOOK = RAW, DEPTH, GROUP_SIZE, SHIFT, TRIT };
static const struct field RAW_TABLE[] = {
    {"dtype", STR, 0}, {"kind", STR, 0}, {"name", STR, 0}, {"shape", ARRAY, INT}, {"sha256", BIN, 0}};
static const struct field TRIT_TABLE[] = {
    {"dtype", STR, 0}, {"kind", STR, 0}, {"name", STR, 0}, {"shape", ARRAY, INT}, {"sha256", ARRAY, BIN},
    {"codebook", BIN, 0}, {"depth", INT, 0}, {"group_size", INT, 0}, {"shift", INT, 0}};

static clause read_shape(const struct file *f, const struct value *v, struct tensor *t) {
    uint64_t not_zero = 1; /* product of the axes that are not 0 */
    size_t at = v->body;
    /* "The rank of a tensor MUST be at most 8." */
    if (v->number > MAX_RANK) return broken("SHAPE-1", v->at);
    t->elements = 1;
    for (t->rank = 0; t->rank < v->number; t->rank++) {
        uint64_t axis = next(f, &at).number;
        /* "The product of a tensor's non-zero axes MUST be at most 2^48." */
        if (axis > MAX_ELEMENTS / not_zero) return broken("SHAPE-2", v->at);
        if (axis > 0) not_zero *= axis;
        t->elements *= axis;
        t->shape[t->rank] = axis;
    }
    return NULL;
}

static clause read_trit(const struct file *f, const struct value *v, struct tensor *t) {
    t->depth = v[DEPTH].number;
    t->shift = v[SHIFT].number;
    t->group_size = v[GROUP_SIZE].number;
    t->codebook = f->front + v[CODEBOOK].body;
    /* "A trit tensor MUST have a rank of at least 1 and no axis of 0." */
    if (t->rank < 1 || t->elements == 0) return broken("TEN-1", v[SHAPE].at);
    /* "The depth of a trit tensor MUST be 1, 2, 3 or 4." */
    if (t->depth < 1 || t->depth > MAX_DEPTH) return broken("TEN-2", v[DEPTH].at);
    /* "The sum of depth and shift MUST be at most 4." */
    if (t->shift > MAX_DEPTH - t->depth) return broken("TEN-3", v[SHIFT].at);
    /* "The group size MUST lie in 1..65536." */
    if (t->group_size < 1 || t->group_size > MAX_GROUP) return broken("TEN-4", v[GROUP_SIZE].at);
    /* "The dtype of a trit tensor MUST be F32, F16 or BF16." */
    if (t->dtype >= FLOATS) return broken("TEN-5", v[DTYPE].at);
    /* "A codebook MUST hold exactly 27 steps of binary32." */
    if (v[CODEBOOK].number != 4 * STEPS) return broken("CB-1", v[CODEBOOK].at);
    clause fault = check_codebook(t->codebook, POWER[t->shift] * largest_level(t->depth), t->dtype);
    if (fault != NULL) return broken(fault, v[CODEBOOK].at);
    t->K = t->shape[t->rank - 1];
    t->rows = t->elements / t->K;
    t->G = ceil_div(t->K, t->group_size);
    t->segments = CODE_PLANES + (unsigned)t->depth;
    return NULL;
}

static clause read_digests(const struct file *f, const struct value *v, struct tensor *t) {
    size_t at = v->type == BIN ? v->at : v->body;
    /* "An entry MUST hold one digest of 32 bytes for each of its segments." */
    if (v->type == ARRAY && v->number != t->segments) return broken("ENT-3", v->at);
    for (unsigned i = 0; i < t->segments; i++) {
        struct value digest = next(f, &at);
        if (digest.number != DIGEST) return broken("ENT-3", digest.at);
        t->digest[i] = f->front + digest.body;
    }
    return NULL;
}

static clause read_entry(const struct file *f, const struct value *entry, struct tensor *t) {
    struct value v[TRIT], kind = find(f, entry, "kind");
    /* "An entry MUST have every key of its kind." */
    if (kind.type == NOTHING) return broken("ENT-1", entry->at);
    if (kind.type != STR) return broken("TYPE-1", kind.at);
    t->is_trit = is(f, &kind, "trit");
    /* "The kind of an entry MUST be trit or raw." */
    if (!t->is_trit && !is(f, &kind, "raw")) return broken("ENT-2", kind.at);
    if (t->is_trit) TRY(read_fields(f, entry, TRIT_TABLE, TRIT, "ENT-1", v));
    else TRY(read_fields(f, entry, RAW_TABLE, RAW, "ENT-1", v));
    TRY(check_name(f, &v[NAME]));
    TRY(read_shape(f, &v[SHAPE], t));
    t->name = v[NAME];
    t->segments = 1;
    while (DTYPES[t->dtype].bytes > 0 && !is(f, &v[DTYPE], DTYPES[t->dtype].name)) t->dtype++;
    if (t->is_trit) TRY(read_trit(f, v, t));
    /* "The dtype of a raw tensor MUST be one of the table." */
    if (DTYPES[t->dtype].bytes == 0) return broken("RAW-1", v[DTYPE].at);
    return read_digests(f, &v[SHA256], t);
}

static clause read_directory(struct file *f, const struct value *v) {
    size_t at = v->body;
    uint64_t most = f->end / 64 + 1; /* that can be read: an entry with all its keys takes more than 64 bytes */
    f->tensors = calloc((size_t)(v->number < most ? v->number : most) + 1, sizeof *f->tensors);
    if (f->tensors == NULL) return "not enough memory for the directory";
    for (; f->count < v->number; f->count++) {
        struct tensor *t = &f->tensors[f->count];
        struct value entry = next(f, &at);
        TRY(read_entry(f, &entry, t));
        /* "The entries MUST stand in strictly increasing order of the UTF-8 bytes of their names." */
        if (f->count > 0 && !is_above(f, &t->name, &t[-1].name)) return broken("HDR-3", t->name.at);
    }
    return NULL;
}

static clause read_header(struct file *f) {
    static const struct field table[] = {
        {"metadata", MAP, STR}, {"tensors", ARRAY, MAP}, {"version", ARRAY, INT}};
    struct value header = {.type = NOTHING}, v[3];
    size_t at = PREAMBLE;
    TRY(check_value(f, &at, 0, &header));
    /* "The header MUST be exactly one value, with nothing cut off and nothing after it." */
    if (at != f->end) return broken("MP-5", at);
    at = PREAMBLE;
    header = next(f, &at);
    if (header.type != MAP) return broken("TYPE-1", PREAMBLE);
    /* "The header MUST have the keys metadata, tensors and version." */
    TRY(read_fields(f, &header, table, 3, "HDR-1", v));
    f->metadata = v[0];
    TRY(check_metadata(f, &v[0]));
    at = v[2].body;
    if (v[2].number != 2) return broken("TYPE-1", v[2].at);
    /* "The version in the header MUST equal the version in the preamble." */
    if (next(f, &at).number != 1 || next(f, &at).number != f->minor) return broken("HDR-2", v[2].at);
    return read_directory(f, &v[1]);
}

/* 7 Layout */

static uint64_t align(uint64_t x) { return ceil_div(x, 64) * 64; } /* x <= 2^63 + 2^51: cannot wrap */

/* At most 2^48 elements of 8 bytes, and no more bytes than elements in a plane: cannot wrap. */
static uint64_t size_of(const struct tensor *t, unsigned segment) {
    if (!t->is_trit) return t->elements * DTYPES[t->dtype].bytes;
    return ceil_div(t->rows, 5) * (segment < CODE_PLANES ? t->G : t->K);
}

/* "The first segment MUST begin at align(64 + header size), and each other one at align(end of the one
 * before)." */
static clause place(const struct file *f, struct tensor *t, unsigned segment, uint64_t *end) {
    t->offset[segment] = *end;
    *end = align(*end + size_of(t, segment));
    /* "The end of the file MUST be at most 2^63 - 1." */
    return *end > INT64_MAX ? broken_in(f, t, "LAY-5", f->size) : NULL;
}

/* "The segments MUST stand in this order: the raw tensors, in directory order; the three code planes of every
 * trit tensor, tensor by tensor; then the most significant weight plane of every trit tensor, then the next plane
 * of every tensor that has one, and so on." */
static clause lay_out(struct file *f) {
    uint64_t end = align(f->end);
    struct tensor *t, *stop = f->tensors + f->count;
    for (t = f->tensors; t < stop; t++)
        if (!t->is_trit) TRY(place(f, t, 0, &end));
    for (t = f->tensors; t < stop; t++)
        for (unsigned p = 0; p < CODE_PLANES && t->is_trit; p++) TRY(place(f, t, p, &end));
    for (unsigned p = CODE_PLANES; p < MAX_SEGMENTS; p++)
        for (t = f->tensors; t < stop; t++)
            if (p < t->segments) TRY(place(f, t, p, &end)); /* a raw tensor has one */
    /* "The file MUST end at align(end of the last segment), or at align(64 + header size) where there are no
     * segments." */
    return end != f->size ? broken("LAY-4", f->size) : NULL;
}

/* 8 Reading */

/* Reads preamble and header, and checks all that they and the length show. To be closed in any case. */
static clause open_file(struct file *f, const char *path) {
    struct stat status;
    *f = (struct file){.stream = NULL};
    if (stat(path, &status) != 0 || !S_ISREG(status.st_mode)) return "not a regular file";
    f->stream = fopen(path, "rb");
    if (f->stream == NULL || fseeko(f->stream, 0, SEEK_END) != 0) return "cannot open the file";
    f->size = (uint64_t)ftello(f->stream);
    TRY(read_front(f));
    TRY(read_header(f));
    return lay_out(f);
}

static void close_file(struct file *f) {
    for (size_t i = 0; i < f->count; i++)
        for (unsigned p = 0; p < MAX_SEGMENTS; p++) free(f->tensors[i].plane[p]);
    free(f->tensors);
    free(f->front);
    if (f->stream != NULL) fclose(f->stream);
}

/* Checks a byte of a segment, at *at* in it. */
static clause check_byte(const struct tensor *t, unsigned segment, uint64_t at, uint8_t byte) {
    if (t->is_trit) return check_packed(byte, at, t->rows, segment < CODE_PLANES ? t->G : t->K);
    /* "Every byte of a raw tensor of dtype BOOL MUST be 0 or 1." */
    return t->dtype == BOOL && byte > 1 ? "RAW-2" : NULL;
}

/* Reads and checks a segment; *keep* has room for it, or is NULL. */
static clause read_segment(struct file *f, const struct tensor *t, unsigned segment, uint8_t *keep) {
    uint8_t buffer[1 << 16], digest[DIGEST];
    uint64_t size = size_of(t, segment);
    struct sha256 hash = SHA256_START;
    for (uint64_t from = 0; from < size; from += sizeof buffer) {
        size_t n = size - from < sizeof buffer ? (size_t)(size - from) : sizeof buffer;
        uint8_t *bytes = keep != NULL ? keep + from : buffer;
        TRY(read_at(f, t->offset[segment] + from, bytes, n));
        for (size_t i = 0; i < n; i++) {
            clause fault = check_byte(t, segment, from + i, bytes[i]);
            if (fault != NULL) return broken_in(f, t, fault, t->offset[segment] + from + i);
        }
        sha256_add(&hash, bytes, n);
    }
    sha256_end(&hash, digest);
    /* "The SHA-256 of each segment MUST equal its digest in the directory." */
    bool same = memcmp(digest, t->digest[segment], DIGEST) == 0;
    return same ? NULL : broken_in(f, t, "SEG-1", t->offset[segment]);
}

/* Loads the codes and the top *depth* planes, in place of what was loaded before: at most as many as there are.
 * "A reader MUST NOT give out data that breaks PACK-2, PACK-3 or RAW-2." */
static clause load(struct file *f, struct tensor *t, uint64_t depth) {
    if (!t->is_trit || depth > t->depth) return "the tensor has no such planes";
    for (unsigned p = 0; p < MAX_SEGMENTS; p++) {
        free(t->plane[p]);
        t->plane[p] = NULL;
    }
    for (unsigned p = 0; p < CODE_PLANES + depth; p++) {
        uint64_t size = size_of(t, p);
        uint8_t *plane = size <= SIZE_MAX ? malloc((size_t)size) : NULL;
        if (plane == NULL) return "not enough memory for the tensor";
        clause fault = read_segment(f, t, p, plane);
        if (fault != NULL) {
            free(plane);
            return fault;
        }
        t->plane[p] = plane;
    }
    return NULL;
}

/* 9 Verification */

static clause check_gap(struct file *f, uint64_t from) {
    uint8_t bytes[64];
    size_t size = (size_t)(align(from) - from);
    TRY(read_at(f, from, bytes, size));
    /* "Every byte that belongs to neither preamble, header nor segment MUST be zero." */
    for (size_t i = 0; i < size; i++)
        if (bytes[i] != 0) return broken("LAY-3", from + i);
    return NULL;
}

/* Of a file that is open: segments, and the gaps after them and the header, up to the next multiple of 64. */
static clause verify(struct file *f) {
    TRY(check_gap(f, f->end));
    for (struct tensor *t = f->tensors; t < f->tensors + f->count; t++)
        for (unsigned segment = 0; segment < t->segments; segment++) {
            TRY(read_segment(f, t, segment, NULL));
            TRY(check_gap(f, t->offset[segment] + size_of(t, segment)));
        }
    return NULL;
}

enum { VALID, INVALID, UNREADABLE, UNSUPPORTED };

/* A file that ended or failed while it was read is neither valid nor invalid. */
static int status_of(clause what) {
    if (what == NULL) return VALID;
    if (what[0] < 'A' || what[0] > 'Z' || strcmp(what, "READ-4") == 0) return UNREADABLE;
    return strcmp(what, "PRE-3") == 0 || strcmp(what, "PRE-4") == 0 ? UNSUPPORTED : INVALID;
}
