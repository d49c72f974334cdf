/* trit.c - read, verify and decode .trit files. The chapters stand in the order of SPEC.md, whose sentences are quoted
 * above the lines that obey them. Integers only: nothing here depends on the platform's floating point, byte order,
 * signedness of char, or width of size_t. */
#define _POSIX_C_SOURCE 200809L /* pread, O_NONBLOCK */
#define _FILE_OFFSET_BITS 64

#include "trit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define TRY(call)                                                                                                      \
    do {                                                                                                               \
        trit_clause broken_ = (call);                                                                                  \
        if (broken_ != NULL) return broken_;                                                                           \
    } while (0)

/* 1.4 Limits */

#define MAX_FILE ((uint64_t)INT64_MAX)
#define MAX_ELEMENTS ((uint64_t)1 << 48)

enum {
    PREAMBLE = 64,
    MAX_HEADER = 67108864,
    MAX_NESTING = 8,
    MAX_TENSORS = 1048576,
    MAX_NAME = 512,
    MAX_PAIRS = 1024,
    MAX_METADATA_VALUE = 1048576,
    MAX_GROUP = 65536
};

typedef char off_t_has_64_bits[sizeof(off_t) == 8 ? 1 : -1];

/* Little-endian integers, and the dimensions that only the bytes' own arithmetic needs. */

static uint64_t little(const uint8_t *bytes, unsigned size)
{
    uint64_t value = 0;
    while (size-- > 0) value = value << 8 | bytes[size];
    return value;
}

static uint64_t ceil_div(uint64_t a, uint64_t b) { return a / b + (a % b != 0); } /* cannot wrap, as (a + b - 1) / b could */

/* 2 Trits and levels */

enum { ROWS_PER_BYTE = 5, MAX_BYTE = 242 };

static const uint8_t POWER[ROWS_PER_BYTE + 1] = {1, 3, 9, 27, 81, 243}; /* of 3 */

unsigned trit_largest_level(unsigned depth) { return (POWER[depth] - 1U) / 2; }

static int digit(unsigned number, unsigned place) { return (int)(number / POWER[place] % 3) - 1; } /* as a trit */

static trit_clause check_trits(const int8_t *trits, size_t n)
{
    /* "A trit MUST be -1, 0 or +1." */
    for (size_t i = 0; i < n; i++)
        if (trits[i] < -1 || trits[i] > 1) return "TRIT-1";
    return NULL;
}

trit_clause trit_split(const int8_t *levels, size_t n, unsigned depth, unsigned p, int8_t *plane)
{
    int H = (int)trit_largest_level(depth);
    for (size_t i = 0; i < n; i++) {
        /* "A level of depth d MUST lie in -H..H, where H = (3^d - 1)/2." */
        if (levels[i] < -H || levels[i] > H) return "TRIT-2";
        plane[i] = (int8_t)digit((unsigned)(levels[i] + H), p);
    }
    return NULL;
}

trit_clause trit_join(const int8_t *const planes[], unsigned depth, size_t n, int8_t *levels)
{
    for (unsigned p = 0; p < depth; p++) TRY(check_trits(planes[p], n));
    for (size_t i = 0; i < n; i++) {
        int k = 0;
        for (unsigned p = depth; p-- > 0;) k = 3 * k + planes[p][i];
        levels[i] = (int8_t)k; /* |k| <= H <= 40 */
    }
    return NULL;
}

/* 3 Packing */

uint64_t trit_byte_rows(uint64_t rows) { return ceil_div(rows, ROWS_PER_BYTE); }

trit_clause trit_pack(const int8_t *trits, size_t rows, size_t columns, uint8_t *packed)
{
    TRY(check_trits(trits, rows * columns));
    size_t byte_rows = (size_t)trit_byte_rows(rows);
    for (size_t r = 0; r < byte_rows; r++)
        for (size_t j = 0; j < columns; j++) {
            /* "byte[r, j] = sum over i = 0..4 of (t[5r+i, j] + 1) * 3^i" */
            unsigned sum = 0;
            for (size_t i = 0; i < ROWS_PER_BYTE; i++) {
                size_t row = ROWS_PER_BYTE * r + i;
                /* "A trit that pads the last byte row MUST be 0." */
                sum += (unsigned)((row < rows ? trits[row * columns + j] : 0) + 1) * POWER[i];
            }
            packed[r * columns + j] = (uint8_t)sum;
        }
    return NULL;
}

/* Checks *n* bytes of a packed plane, the first of which is byte *from* of it; *bad* becomes the index of the first bad one. */
static trit_clause check_packed(const uint8_t *bytes, size_t n, uint64_t from, uint64_t rows, uint64_t columns, size_t *bad)
{
    uint64_t last_row = (trit_byte_rows(rows) - 1) * columns; /* not read where n is 0 */
    unsigned used = rows % ROWS_PER_BYTE == 0 ? ROWS_PER_BYTE : (unsigned)(rows % ROWS_PER_BYTE);
    unsigned padding = (POWER[ROWS_PER_BYTE - used] - 1U) / 2; /* digits of 1 */
    for (size_t i = 0; i < n; i++) {
        *bad = i;
        /* "Every byte of a packed plane MUST be at most 242." */
        if (bytes[i] > MAX_BYTE) return "PACK-2";
        /* "A trit that pads the last byte row MUST be 0." */
        if (from + i >= last_row && bytes[i] / POWER[used] != padding) return "PACK-3";
    }
    return NULL;
}

/* "t[5r+i, j] = byte[r, j] // 3^i % 3 - 1" */
static int8_t trit_at(const uint8_t *plane, uint64_t row, uint64_t columns, uint64_t j)
{
    return (int8_t)digit(plane[(size_t)(row / ROWS_PER_BYTE * columns + j)], (unsigned)(row % ROWS_PER_BYTE));
}

trit_clause trit_unpack(const uint8_t *packed, size_t rows, size_t columns, int8_t *trits)
{
    size_t bad;
    TRY(check_packed(packed, (size_t)trit_byte_rows(rows) * columns, 0, rows, columns, &bad));
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < columns; j++)
            trits[i * columns + j] = trit_at(packed, i, columns, j);
    return NULL;
}

/* 4 Codebook and codes */

static uint32_t get_step(const uint8_t *codebook, size_t c) { return (uint32_t)little(codebook + 4 * c, 4); }

static trit_clause check_codebook(const uint8_t *codebook, unsigned shift, unsigned depth, enum trit_float dtype)
{
    static const uint32_t infinity[TRIT_FLOATS] = {0x7F800000, 0x7C00, 0x7F80};
    for (size_t c = 0; c < TRIT_STEPS; c++) {
        uint32_t step = get_step(codebook, c);
        /* "Every step MUST be positive, normal and finite." */
        if (step < 0x00800000 || step > 0x7F7FFFFF) return "CB-2";
        /* "The steps MUST be strictly increasing." */
        if (c > 0 && step <= get_step(codebook, c - 1)) return "CB-3";
        /* "The low six bits of every step's significand MUST be zero." */
        if (step % 64 != 0) return "CB-4";
    }
    /* "The largest value, `step[26] * 3^shift * H`, rounded to the tensor's dtype, MUST be finite." */
    int multiple = (int)(POWER[shift] * trit_largest_level(depth));
    uint32_t largest = trit_product(get_step(codebook, TRIT_STEPS - 1), multiple);
    return trit_round(largest, dtype) == infinity[dtype] ? "CB-5" : NULL;
}

/* 5 Trit tensors */

/* "A weight MUST decode to step[c] * 3^shift * k, exactly, in binary32."
 * Exact: the step is an 18-bit significand (CB-4) times 2^(exponent - 127 - 17), and |multiple| = 3^shift * |k| <= 40 has 6
 * bits, so their product stays below 2^24; it only has to be moved up until its leading one is bit 23. That takes at most
 * the 6 places that the exponent is ahead, so the result is never subnormal. */
uint32_t trit_product(uint32_t step, int multiple)
{
    /* "A weight of level 0 MUST decode to +0." */
    if (multiple == 0) return 0;
    uint32_t sign = multiple < 0 ? 0x80000000 : 0;
    uint32_t product = ((step & 0x7FFFFF) | 0x800000) / 64 * (uint32_t)(multiple < 0 ? -multiple : multiple);
    uint32_t exponent = (step >> 23) + 6;
    for (; product < 0x800000; product *= 2) exponent--;
    if (exponent >= 255) return sign | 0x7F800000; /* 2^128 or more: CB-5 keeps it out of files */
    return sign | exponent << 23 | (product & 0x7FFFFF);
}

/* value / 2^places, to nearest, ties to even; places is 1 to 31. */
static uint32_t round_off(uint32_t value, unsigned places)
{
    uint32_t quotient = value >> places, rest = value - (quotient << places), half = (uint32_t)1 << (places - 1);
    return quotient + (rest > half || (rest == half && quotient % 2 == 1));
}

/* "A weight decoded to binary16 or bfloat16 MUST be the exact value rounded once, to nearest, ties to even."
 * A carry out of the significand goes into the exponent, up to that of infinity, as it should. */
uint32_t trit_round(uint32_t binary32, enum trit_float dtype)
{
    uint32_t magnitude = binary32 & 0x7FFFFFFF, exponent = magnitude >> 23;
    if (dtype == TRIT_F32) return binary32;
    if (dtype == TRIT_BF16) return (binary32 >> 31) << 15 | round_off(magnitude, 16);
    uint32_t sign = (binary32 >> 31) << 15, significand = (magnitude & 0x7FFFFF) | 0x800000;
    if (exponent >= 127 + 16) return sign | 0x7C00;
    if (exponent >= 127 - 14) return sign | (((exponent - (127 - 14)) << 10) + round_off(significand, 13));
    if (exponent >= 127 - 25) return sign | round_off(significand, 13 + (127 - 14) - exponent); /* subnormal, 2^-14 or 0 */
    return sign; /* below 2^-25, half of the least subnormal */
}

/* "A code MUST lie in 0..26." */
void trit_decode_codes(const struct trit_weights *w, uint64_t row, uint8_t *codes)
{
    uint64_t G = w->tensor->G;
    for (size_t g = 0; g < G; g++) {
        int c = 0;
        for (unsigned p = TRIT_CODE_PLANES; p-- > 0;) c = 3 * c + trit_at(w->plane[p], row, G, g) + 1;
        codes[g] = (uint8_t)c;
    }
}

/* "The top d' planes of a tensor of depth d MUST be read as a tensor of depth d' whose shift is greater by d - d'." */
void trit_decode_levels(const struct trit_weights *w, uint64_t row, int8_t *levels)
{
    uint64_t K = w->tensor->K;
    for (size_t j = 0; j < K; j++) {
        int k = 0;
        for (unsigned p = 0; p < w->depth; p++) k = 3 * k + trit_at(w->plane[TRIT_CODE_PLANES + p], row, K, j);
        levels[j] = (int8_t)k;
    }
}

void trit_decode_values(const struct trit_weights *w, const uint8_t *codes, const int8_t *levels, enum trit_float dtype,
                        uint8_t *values)
{
    unsigned size = trit_dtypes[dtype].bytes;
    for (size_t j = 0; j < w->tensor->K; j++) {
        uint32_t step = get_step(w->tensor->codebook, codes[j / w->tensor->group_size]);
        uint32_t bits = trit_round(trit_product(step, POWER[w->shift] * levels[j]), dtype);
        for (unsigned i = 0; i < size; i++) *values++ = (uint8_t)(bits >> 8 * i);
    }
}

/* 6.1 Preamble */

static trit_clause tell(const struct trit_file *f, trit_clause clause, const struct trit_tensor *t, uint64_t at)
{
    struct trit_text none = {NULL, 0};
    if (f->tell != NULL) f->tell(f->context, clause, t != NULL ? t->name : none, at);
    return clause;
}

/* "A reader MUST report as an error a file that ends before what its header promises." */
static trit_clause read_at(const struct trit_file *f, uint64_t at, uint8_t *bytes, size_t size)
{
    while (size > 0) {
        size_t most = size < (1 << 20) ? size : (1 << 20); /* well below SSIZE_MAX anywhere */
        ssize_t got = pread(f->descriptor, bytes, most, (off_t)at); /* at < size of the file < 2^63 */
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return "cannot read the file";
        if (got == 0) return tell(f, "READ-4", NULL, at);
        bytes += got;
        size -= (size_t)got;
        at += (uint64_t)got;
    }
    return NULL;
}

static trit_clause read_preamble(struct trit_file *f, uint64_t *header_size, uint8_t digest[TRIT_DIGEST])
{
    static const uint8_t magic[8] = {0x89, 'T', 'R', 'I', 'T', 0x0D, 0x0A, 0x1A};
    uint8_t bytes[PREAMBLE];
    /* "A file MUST be at least 64 bytes long." */
    if (f->size < PREAMBLE) return tell(f, "PRE-1", NULL, f->size);
    TRY(read_at(f, 0, bytes, PREAMBLE));
    /* "The file MUST begin with the eight bytes of the magic." */
    if (memcmp(bytes, magic, sizeof magic) != 0) return tell(f, "PRE-2", NULL, 0);
    f->major = (unsigned)little(bytes + 8, 2);
    f->minor = (unsigned)little(bytes + 10, 2);
    /* "The major version MUST be 1." */
    if (f->major != 1) return tell(f, "PRE-3", NULL, 8);
    /* "The flags MUST be 0." */
    if (little(bytes + 12, 4) != 0) return tell(f, "PRE-4", NULL, 12);
    *header_size = little(bytes + 16, 8);
    /* "The header size MUST lie in 1..67108864." */
    if (*header_size < 1 || *header_size > MAX_HEADER) return tell(f, "PRE-5", NULL, 16);
    /* "The file size MUST equal the length of the file." */
    if (little(bytes + 24, 8) != f->size) return tell(f, "PRE-6", NULL, 24);
    /* "The header MUST end within the file." */
    if (*header_size > f->size - PREAMBLE) return tell(f, "PRE-7", NULL, 16);
    memcpy(digest, bytes + 32, TRIT_DIGEST);
    return NULL;
}

static trit_clause read_header_bytes(struct trit_file *f, size_t size, const uint8_t digest[TRIT_DIGEST])
{
    struct trit_sha256 hash;
    f->header = malloc(size); /* 1 byte to 64 MiB, and no more than the file has */
    if (f->header == NULL) return "not enough memory for the header";
    TRY(read_at(f, PREAMBLE, f->header, size));
    trit_sha256_begin(&hash);
    trit_sha256_add(&hash, f->header, size);
    trit_sha256_end(&hash, f->identity);
    f->header_size = size;
    /* "The SHA-256 of the header's bytes MUST equal the digest in the preamble." */
    return memcmp(f->identity, digest, TRIT_DIGEST) != 0 ? tell(f, "PRE-8", NULL, 32) : NULL;
}

/* 6.2 Canonical MessagePack */

enum type { NOTHING, INT, STR, BIN, ARRAY, MAP };

struct value {
    enum type type;
    uint64_t number; /* the integer, or how many bytes, values or pairs */
    size_t first;    /* where its encoding begins in the header */
    size_t content;  /* where its bytes, values or pairs begin */
};

struct cursor {
    const struct trit_file *file;
    size_t at;
};

static trit_clause broken(const struct trit_file *f, trit_clause clause, size_t at)
{
    return tell(f, clause, NULL, PREAMBLE + (uint64_t)at);
}

static const uint8_t *content(const struct trit_file *f, const struct value *v) { return f->header + v->content; }

/* The table of shortest forms: a number in the first byte itself, or, above that, in the *width* bytes after it. */
static const struct form {
    uint8_t first, last; /* first bytes */
    enum type type;
    unsigned width;
    uint64_t least; /* number that needs this form */
} FORMS[] = {
    {0x00, 0x7F, INT, 0, 0},     {0x80, 0x8F, MAP, 0, 0},     {0x90, 0x9F, ARRAY, 0, 0},     {0xA0, 0xBF, STR, 0, 0},
    {0xC4, 0xC4, BIN, 1, 0},     {0xC5, 0xC5, BIN, 2, 256},   {0xC6, 0xC6, BIN, 4, 65536},
    {0xCC, 0xCC, INT, 1, 128},   {0xCD, 0xCD, INT, 2, 256},   {0xCE, 0xCE, INT, 4, 65536},
    {0xCF, 0xCF, INT, 8, (uint64_t)1 << 32},
    {0xD9, 0xD9, STR, 1, 32},    {0xDA, 0xDA, STR, 2, 256},   {0xDB, 0xDB, STR, 4, 65536},
    {0xDC, 0xDC, ARRAY, 2, 16},  {0xDD, 0xDD, ARRAY, 4, 65536},
    {0xDE, 0xDE, MAP, 2, 16},    {0xDF, 0xDF, MAP, 4, 65536},
};

static const struct form *find_form(uint8_t byte)
{
    for (size_t i = 0; i < sizeof FORMS / sizeof *FORMS; i++) /* in order of first bytes */
        if (byte <= FORMS[i].last) return byte >= FORMS[i].first ? &FORMS[i] : NULL;
    return NULL;
}

/* Reads an integer, or the head of any other value: all reads of the header's heads go through here. */
static trit_clause next_head(struct cursor *c, struct value *v)
{
    const struct trit_file *f = c->file;
    v->first = c->at;
    /* "The header MUST be exactly one value, with nothing cut off and nothing after it." */
    if (c->at == f->header_size) return broken(f, "MP-5", c->at);
    /* "Every value in the header MUST be an unsigned integer, a str, a bin, an array or a map." */
    const struct form *form = find_form(f->header[c->at]);
    if (form == NULL) return broken(f, "MP-1", c->at);
    v->number = (uint64_t)f->header[c->at++] - form->first;
    if (form->width > f->header_size - c->at) return broken(f, "MP-5", v->first);
    for (unsigned i = 0; i < form->width; i++) v->number = v->number << 8 | f->header[c->at++]; /* from 0: first == last */
    /* "Every integer and every length MUST be in its shortest form." */
    if (v->number < form->least) return broken(f, "MP-2", v->first);
    v->type = form->type;
    v->content = c->at;
    return NULL;
}

/* Reads an integer, a str, a bin, or the head of an array or map. */
static trit_clause next(struct cursor *c, struct value *v)
{
    TRY(next_head(c, v));
    if (v->type != STR && v->type != BIN) return NULL;
    /* "The header MUST be exactly one value, with nothing cut off and nothing after it." */
    if (v->number > c->file->header_size - c->at) return broken(c->file, "MP-5", v->first);
    c->at += (size_t)v->number;
    return NULL;
}

/* The code point at *s, and how many of *n* bytes it takes: 0 where they are not well-formed UTF-8. */
static size_t utf8(const uint8_t *s, size_t n, uint32_t *point)
{
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

/* -1, 0 or 1 as the UTF-8 bytes of *a* come before, are, or come after those of *b*. */
static int compare(const uint8_t *a, size_t a_size, const uint8_t *b, size_t b_size)
{
    int order = memcmp(a, b, a_size < b_size ? a_size : b_size);
    if (order == 0) order = (a_size > b_size) - (a_size < b_size);
    return (order > 0) - (order < 0);
}

/* A key that is no str is found from its head, before what is wrong with its length or nesting (chapter 9). */
static trit_clause check_key_type(struct cursor c)
{
    struct value key;
    TRY(next_head(&c, &key));
    /* "The keys of a map MUST be str in strictly increasing order of their UTF-8 bytes." */
    return key.type != STR ? broken(c.file, "MP-3", key.first) : NULL;
}

static trit_clause check_key(const struct trit_file *f, const struct value *key, const struct value *before)
{
    /* "The keys of a map MUST be str in strictly increasing order of their UTF-8 bytes." */
    if (before->type == NOTHING) return NULL;
    int order = compare(content(f, before), (size_t)before->number, content(f, key), (size_t)key->number);
    return order >= 0 ? broken(f, "MP-3", key->first) : NULL;
}

static bool is_text(const struct trit_file *f, const struct value *v, const char *text)
{
    return v->number == strlen(text) && memcmp(content(f, v), text, (size_t)v->number) == 0;
}

/* Chapter 9: a limit on a count is broken by the count alone, so the header's two are looked at before what is in them. */
static trit_clause check_count(struct cursor c, const struct value *key)
{
    struct value v;
    TRY(next(&c, &v));
    /* "The metadata MUST hold at most 1024 pairs." */
    if (v.type == MAP && v.number > MAX_PAIRS && is_text(c.file, key, "metadata")) return broken(c.file, "HDR-5", v.first);
    /* "The header MUST hold at most 1048576 entries." */
    if (v.type == ARRAY && v.number > MAX_TENSORS && is_text(c.file, key, "tensors")) return broken(c.file, "HDR-4", v.first);
    return NULL;
}

/* Checks one value and all in it; arrays and maps around it: *depth*. Recursion is bounded by MP-6. */
static trit_clause check_value(struct cursor *c, unsigned depth, struct value *v)
{
    struct value before = {NOTHING, 0, 0, 0}, key = before, element;
    uint32_t point;
    TRY(next(c, v));
    /* "Every str MUST be well-formed UTF-8." */
    for (size_t i = 0, size; v->type == STR && i < v->number; i += size) {
        size = utf8(content(c->file, v) + i, (size_t)v->number - i, &point);
        if (size == 0) return broken(c->file, "MP-4", v->content + i);
    }
    if (v->type != ARRAY && v->type != MAP) return NULL;
    /* "Arrays and maps MUST be nested at most 8 deep." */
    if (depth == MAX_NESTING) return broken(c->file, "MP-6", v->first);
    for (uint64_t i = 0; i < v->number; i++, before = key) {
        if (v->type == MAP) {
            TRY(check_key_type(*c));
            TRY(check_value(c, depth + 1, &key));
            TRY(check_key(c->file, &key, &before));
            if (depth == 0) TRY(check_count(*c, &key));
        }
        TRY(check_value(c, depth + 1, &element));
    }
    return NULL;
}

static trit_clause check_canonical(const struct trit_file *f)
{
    struct cursor c = {f, 0};
    struct value header;
    TRY(check_value(&c, 0, &header));
    /* "The header MUST be exactly one value, with nothing cut off and nothing after it." */
    return c.at != f->header_size ? broken(f, "MP-5", c.at) : NULL;
}

/* Goes past a value and all in it. From here on the header is known to be canonical, and counts in it to be true. */
static trit_clause skip(struct cursor *c)
{
    struct value v;
    for (uint64_t left = 1; left > 0; left--) {
        TRY(next(c, &v));
        left += v.type == ARRAY ? v.number : v.type == MAP ? 2 * v.number : 0;
    }
    return NULL;
}

/* 6.3 Header */

enum { HEADER_FIELDS = 3, KIND_FIELDS = 1, RAW_FIELDS = 5, TRIT_FIELDS = 9, MAX_FIELDS = TRIT_FIELDS };

struct field {
    const char *key;
    enum type type;
};

/* Finds the values of the table's keys in the map *v*; NOTHING stands for the missing ones. */
static trit_clause find_fields(const struct trit_file *f, const struct value *v, const struct field *table, size_t n,
                               struct value *values)
{
    struct cursor c = {f, v->content};
    for (size_t i = 0; i < n; i++) values[i].type = NOTHING;
    for (uint64_t pair = 0; pair < v->number; pair++) {
        struct value key;
        TRY(next(&c, &key));
        struct cursor here = c;
        for (size_t i = 0; i < n; i++)
            if (is_text(f, &key, table[i].key)) TRY(next(&here, &values[i]));
        TRY(skip(&c));
    }
    return NULL;
}

static trit_clause check_unknown(const struct trit_file *f, const struct value *v, const struct field *table, size_t n)
{
    struct cursor c = {f, v->content};
    for (uint64_t pair = 0; pair < v->number; pair++) {
        struct value key;
        bool known = false;
        TRY(next(&c, &key));
        TRY(skip(&c));
        for (size_t i = 0; i < n; i++) known = known || is_text(f, &key, table[i].key);
        if (known) continue;
        /* "A key that is not in the table of the header, or of the entry's kind, MUST NOT stand there in a file of minor
         * version 0." */
        if (f->minor == 0) return broken(f, "VER-1", key.first);
        broken(f, "ignored", key.first);
    }
    return NULL;
}

/* Reads a map whose keys the table lists: *missing* is the requirement that it have them all. */
static trit_clause read_fields(const struct trit_file *f, const struct value *v, const struct field *table, size_t n,
                               trit_clause missing, struct value *values)
{
    TRY(find_fields(f, v, table, n, values));
    for (size_t i = 0; i < n; i++)
        if (values[i].type == NOTHING) return broken(f, missing, v->first);
    TRY(check_unknown(f, v, table, n));
    /* "A value in the header MUST have the type that the tables of this chapter give it." */
    for (size_t i = 0; i < n; i++)
        if (values[i].type != table[i].type) return broken(f, "TYPE-1", values[i].first);
    return NULL;
}

/* The next value, which has to be of *type*. */
static trit_clause expect(struct cursor *c, enum type type, struct value *v)
{
    TRY(next(c, v));
    return v->type != type ? broken(c->file, "TYPE-1", v->first) : NULL;
}

static bool is_control(uint32_t point)
{
    return point <= 0x1F || (point >= 0x7F && point <= 0x9F) || (point >= 0x2028 && point <= 0x202E) ||
           (point >= 0x2066 && point <= 0x2069) || point == 0xFEFF;
}

static trit_clause check_name(const struct trit_file *f, const struct value *v)
{
    uint32_t point;
    /* "A name or a metadata key MUST be 1 to 512 bytes long." */
    if (v->number < 1 || v->number > MAX_NAME) return broken(f, "NAME-1", v->first);
    /* "A name or a metadata key MUST NOT hold a control character." */
    for (size_t i = 0; i < v->number;) {
        size_t size = utf8(content(f, v) + i, (size_t)v->number - i, &point);
        if (size == 0) return broken(f, "MP-4", v->content + i);
        if (is_control(point)) return broken(f, "NAME-2", v->content + i);
        i += size;
    }
    return NULL;
}

static trit_clause read_version(const struct trit_file *f, const struct value *v)
{
    struct cursor c = {f, v->content};
    struct value major, minor;
    if (v->number != 2) return broken(f, "TYPE-1", v->first);
    TRY(expect(&c, INT, &major));
    TRY(expect(&c, INT, &minor));
    /* "The version in the header MUST equal the version in the preamble." */
    return major.number != f->major || minor.number != f->minor ? broken(f, "HDR-2", v->first) : NULL;
}

static trit_clause read_metadata(struct trit_file *f, const struct value *v)
{
    struct cursor c = {f, v->content};
    struct value key, value;
    for (uint64_t i = 0; i < v->number; i++) {
        TRY(next(&c, &key));
        TRY(check_name(f, &key));
        TRY(expect(&c, STR, &value));
        /* "A metadata value MUST be at most 1048576 bytes long." */
        if (value.number > MAX_METADATA_VALUE) return broken(f, "HDR-6", value.first);
    }
    f->metadata_at = v->content;
    f->metadata_pairs = (size_t)v->number;
    return NULL;
}

void trit_metadata(const struct trit_file *f, size_t *at, struct trit_text *key, struct trit_text *text)
{
    struct cursor c = {f, *at};
    struct value name = {STR, 0, 0, 0}, value = {STR, 0, 0, 0};
    if (next(&c, &name) != NULL || next(&c, &value) != NULL) return; /* cannot be: read_metadata saw both */
    *key = (struct trit_text){content(f, &name), (size_t)name.number};
    *text = (struct trit_text){content(f, &value), (size_t)value.number};
    *at = c.at;
}

/* 6.4 Entries */

const struct trit_dtype trit_dtypes[] = {
    {"F32", 4},     {"F16", 2},     {"BF16", 2},    {"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E4M3", 1}, {"F8_E5M2", 1},
    {"F8_E8M0", 1}, {"U16", 2},     {"I16", 2},     {"U32", 4},  {"I32", 4}, {"U64", 8}, {"I64", 8},     {"F64", 8},
    {"C64", 8},
};
enum { DTYPES = sizeof trit_dtypes / sizeof *trit_dtypes, DTYPE_BOOL = 3 };

static unsigned find_dtype(const struct trit_file *f, const struct value *v)
{
    unsigned i = 0;
    while (i < DTYPES && !is_text(f, v, trit_dtypes[i].name)) i++;
    return i;
}

static trit_clause read_shape(const struct trit_file *f, const struct value *v, struct trit_tensor *t)
{
    struct cursor c = {f, v->content};
    struct value axis;
    uint64_t product = 1;
    bool empty = false;
    /* "The rank of a tensor MUST be at most 8." */
    if (v->number > TRIT_MAX_RANK) return broken(f, "SHAPE-1", v->first);
    t->rank = (unsigned)v->number;
    for (unsigned i = 0; i < t->rank; i++) {
        TRY(expect(&c, INT, &axis));
        t->shape[i] = axis.number;
        empty = empty || axis.number == 0;
        if (axis.number == 0) continue;
        /* "The product of a tensor's non-zero axes MUST be at most 2^48." */
        if (axis.number > MAX_ELEMENTS / product) return broken(f, "SHAPE-2", v->first);
        product *= axis.number;
    }
    t->elements = empty ? 0 : product;
    return NULL;
}

/* "An entry MUST hold one digest of 32 bytes for each of its segments." */
static trit_clause check_digest(const struct trit_file *f, const struct value *v)
{
    return v->number != TRIT_DIGEST ? broken(f, "ENT-3", v->first) : NULL;
}

static trit_clause read_digests(const struct trit_file *f, const struct value *v, struct trit_tensor *t)
{
    struct cursor c = {f, v->content};
    struct value digest;
    if (v->number != trit_segments(t)) return broken(f, "ENT-3", v->first);
    for (unsigned i = 0; i < trit_segments(t); i++) {
        TRY(expect(&c, BIN, &digest));
        TRY(check_digest(f, &digest));
        if (i == 0) t->digests = content(f, &digest);
    }
    return NULL;
}

static const uint8_t *digest_of(const struct trit_tensor *t, unsigned segment)
{
    return t->digests + (size_t)segment * (2 + TRIT_DIGEST); /* each bin of 32 bytes begins with C4 20 */
}

static trit_clause read_raw(const struct trit_file *f, const struct value *dtype, const struct value *sha256,
                            struct trit_tensor *t)
{
    /* "The dtype of a raw tensor MUST be one of the table." */
    t->dtype = find_dtype(f, dtype);
    if (t->dtype == DTYPES) return broken(f, "RAW-1", dtype->first);
    TRY(check_digest(f, sha256));
    t->digests = content(f, sha256);
    return NULL;
}

enum { CODEBOOK, DEPTH, DTYPE, GROUP_SIZE, KIND, NAME, SHA256, SHAPE, SHIFT }; /* the order of TRIT_TABLE */

static trit_clause read_trit(const struct trit_file *f, const struct value *v, struct trit_tensor *t)
{
    /* "A trit tensor MUST have a rank of at least 1 and no axis of 0." */
    if (t->rank < 1 || t->elements == 0) return broken(f, "TEN-1", v[SHAPE].first);
    /* "The depth of a trit tensor MUST be 1, 2, 3 or 4." */
    if (v[DEPTH].number < 1 || v[DEPTH].number > TRIT_MAX_DEPTH) return broken(f, "TEN-2", v[DEPTH].first);
    /* "The sum of depth and shift MUST be at most 4." */
    if (v[SHIFT].number > TRIT_MAX_DEPTH - v[DEPTH].number) return broken(f, "TEN-3", v[SHIFT].first);
    /* "The group size MUST lie in 1..65536." */
    if (v[GROUP_SIZE].number < 1 || v[GROUP_SIZE].number > MAX_GROUP) return broken(f, "TEN-4", v[GROUP_SIZE].first);
    t->depth = (unsigned)v[DEPTH].number;
    t->shift = (unsigned)v[SHIFT].number;
    t->group_size = (unsigned)v[GROUP_SIZE].number;
    t->K = t->shape[t->rank - 1];
    t->rows = t->elements / t->K;
    t->G = ceil_div(t->K, t->group_size);
    /* "The dtype of a trit tensor MUST be F32, F16 or BF16." */
    t->dtype = find_dtype(f, &v[DTYPE]);
    if (t->dtype >= TRIT_FLOATS) return broken(f, "TEN-5", v[DTYPE].first);
    /* "A codebook MUST hold exactly 27 steps of binary32." */
    if (v[CODEBOOK].number != 4 * TRIT_STEPS) return broken(f, "CB-1", v[CODEBOOK].first);
    t->codebook = content(f, &v[CODEBOOK]);
    trit_clause fault = check_codebook(t->codebook, t->shift, t->depth, (enum trit_float)t->dtype);
    if (fault != NULL) return broken(f, fault, v[CODEBOOK].first);
    return read_digests(f, &v[SHA256], t);
}

static trit_clause read_name(struct trit_file *f, const struct value *v, struct trit_tensor *t)
{
    TRY(check_name(f, v));
    t->name = (struct trit_text){content(f, v), (size_t)v->number};
    if (f->count == 0) return NULL;
    /* "The entries MUST stand in strictly increasing order of the UTF-8 bytes of their names." */
    struct trit_text before = f->tensors[f->count - 1].name;
    int order = compare(before.bytes, before.size, t->name.bytes, t->name.size);
    return order >= 0 ? broken(f, "HDR-3", v->first) : NULL;
}

static trit_clause read_entry(struct trit_file *f, struct cursor *c, struct trit_tensor *t)
{
    static const struct field KIND_TABLE[KIND_FIELDS] = {{"kind", STR}};
    static const struct field RAW_TABLE[RAW_FIELDS] = {
        {"dtype", STR}, {"kind", STR}, {"name", STR}, {"sha256", BIN}, {"shape", ARRAY}};
    static const struct field TRIT_TABLE[TRIT_FIELDS] = {
        {"codebook", BIN}, {"depth", INT}, {"dtype", STR},    {"group_size", INT}, {"kind", STR},
        {"name", STR},     {"sha256", ARRAY}, {"shape", ARRAY}, {"shift", INT}};
    struct value entry, kind, raw[RAW_FIELDS], v[TRIT_FIELDS];
    struct cursor here = *c;
    TRY(expect(&here, MAP, &entry));
    TRY(skip(c));
    TRY(find_fields(f, &entry, KIND_TABLE, KIND_FIELDS, &kind));
    /* "An entry MUST have every key of its kind." */
    if (kind.type == NOTHING) return broken(f, "ENT-1", entry.first);
    if (kind.type != STR) return broken(f, "TYPE-1", kind.first);
    t->is_trit = is_text(f, &kind, "trit");
    /* "The kind of an entry MUST be trit or raw." */
    if (!t->is_trit && !is_text(f, &kind, "raw")) return broken(f, "ENT-2", kind.first);
    if (t->is_trit) TRY(read_fields(f, &entry, TRIT_TABLE, TRIT_FIELDS, "ENT-1", v));
    else TRY(read_fields(f, &entry, RAW_TABLE, RAW_FIELDS, "ENT-1", raw));
    TRY(read_name(f, t->is_trit ? &v[NAME] : &raw[2], t));
    TRY(read_shape(f, t->is_trit ? &v[SHAPE] : &raw[4], t));
    return t->is_trit ? read_trit(f, v, t) : read_raw(f, &raw[0], &raw[3], t);
}

/* Makes room for one tensor more: memory grows with the entries that were read, not with the count that is claimed. */
static trit_clause grow(struct trit_file *f)
{
    if ((f->count & (f->count - 1)) != 0) return NULL; /* only at 0 and at powers of 2 is it full */
    size_t room = f->count == 0 ? 1 : 2 * f->count; /* at most 2^21 */
    struct trit_tensor *more = realloc(f->tensors, room * sizeof *more);
    if (more == NULL) return "not enough memory for the directory";
    f->tensors = more;
    return NULL;
}

static trit_clause read_directory(struct trit_file *f, const struct value *v)
{
    struct cursor c = {f, v->content};
    for (uint64_t i = 0; i < v->number; i++) {
        TRY(grow(f));
        memset(&f->tensors[f->count], 0, sizeof *f->tensors);
        TRY(read_entry(f, &c, &f->tensors[f->count]));
        f->count++;
    }
    return NULL;
}

static trit_clause read_header(struct trit_file *f)
{
    static const struct field HEADER_TABLE[HEADER_FIELDS] = {{"metadata", MAP}, {"tensors", ARRAY}, {"version", ARRAY}};
    struct cursor c = {f, 0};
    struct value header, v[HEADER_FIELDS];
    TRY(expect(&c, MAP, &header));
    /* "The header MUST have the keys metadata, tensors and version." */
    TRY(read_fields(f, &header, HEADER_TABLE, HEADER_FIELDS, "HDR-1", v));
    TRY(read_version(f, &v[2]));
    TRY(read_metadata(f, &v[0]));
    return read_directory(f, &v[1]);
}

/* 7 Layout */

static uint64_t align(uint64_t x) { return ceil_div(x, 64) * 64; } /* x <= 2^63 + 2^51: cannot wrap */

unsigned trit_segments(const struct trit_tensor *t) { return t->is_trit ? TRIT_CODE_PLANES + t->depth : 1; }

/* At most 2^48 elements of 8 bytes, and no more bytes than elements in a plane: cannot wrap. */
uint64_t trit_segment_size(const struct trit_tensor *t, unsigned segment)
{
    if (!t->is_trit) return t->elements * trit_dtypes[t->dtype].bytes;
    return trit_byte_rows(t->rows) * (segment < TRIT_CODE_PLANES ? t->G : t->K);
}

typedef trit_clause (*visitor)(struct trit_file *, struct trit_tensor *, unsigned segment);

/* "The segments MUST stand in this order: the raw tensors, in directory order; the three code planes of every trit tensor,
 * tensor by tensor; then the most significant weight plane of every trit tensor, then the next plane of every tensor that
 * has one, and so on." */
static trit_clause each_segment(struct trit_file *f, visitor visit)
{
    for (size_t i = 0; i < f->count; i++)
        if (!f->tensors[i].is_trit) TRY(visit(f, &f->tensors[i], 0));
    for (size_t i = 0; i < f->count; i++)
        for (unsigned p = 0; f->tensors[i].is_trit && p < TRIT_CODE_PLANES; p++) TRY(visit(f, &f->tensors[i], p));
    for (unsigned rank = 0; rank < TRIT_MAX_DEPTH; rank++)
        for (size_t i = 0; i < f->count; i++)
            if (rank < f->tensors[i].depth) TRY(visit(f, &f->tensors[i], TRIT_CODE_PLANES + rank)); /* raw: depth 0 */
    return NULL;
}

static trit_clause place(struct trit_file *f, struct trit_tensor *t, unsigned segment)
{
    /* "The first segment MUST begin at align(64 + header size), and each other one at align(end of the one before)." */
    t->offset[segment] = f->end;
    f->end = align(f->end + trit_segment_size(t, segment));
    /* "The end of the file MUST be at most 2^63 - 1." */
    return f->end > MAX_FILE ? tell(f, "LAY-5", t, f->size) : NULL;
}

static trit_clause lay_out(struct trit_file *f)
{
    f->end = align(PREAMBLE + (uint64_t)f->header_size);
    TRY(each_segment(f, place));
    /* "The file MUST end at align(end of the last segment), or at align(64 + header size) where there are no segments." */
    return f->end != f->size ? tell(f, "LAY-4", NULL, f->size) : NULL;
}

/* 8 Reading */

static trit_clause open_regular(struct trit_file *f, const char *path)
{
    struct stat status;
    f->descriptor = open(path, O_RDONLY | O_NONBLOCK); /* so that a FIFO is refused, not waited for */
    if (f->descriptor < 0) return "cannot open the file";
    if (fstat(f->descriptor, &status) != 0) return "cannot read the file";
    if (!S_ISREG(status.st_mode) || status.st_size < 0) return "not a regular file";
    f->size = (uint64_t)status.st_size;
    return NULL;
}

trit_clause trit_open(struct trit_file *f, const char *path, trit_listener listener, void *context)
{
    uint64_t header_size = 0;
    uint8_t digest[TRIT_DIGEST];
    memset(f, 0, sizeof *f);
    f->header = NULL;
    f->tensors = NULL;
    f->tell = listener;
    f->context = context;
    TRY(open_regular(f, path));
    TRY(read_preamble(f, &header_size, digest));
    TRY(read_header_bytes(f, (size_t)header_size, digest));
    TRY(check_canonical(f));
    TRY(read_header(f));
    return lay_out(f);
}

void trit_close(struct trit_file *f)
{
    if (f->descriptor >= 0) close(f->descriptor);
    free(f->header);
    free(f->tensors);
    f->descriptor = -1;
    f->header = NULL;
    f->tensors = NULL;
}

const struct trit_tensor *trit_find(const struct trit_file *f, struct trit_text name)
{
    for (size_t i = 0; i < f->count; i++) {
        const struct trit_tensor *t = &f->tensors[i];
        if (compare(t->name.bytes, t->name.size, name.bytes, name.size) == 0) return t;
    }
    return NULL;
}

static trit_clause check_bytes(const struct trit_tensor *t, unsigned segment, const uint8_t *bytes, size_t n, uint64_t from,
                               size_t *bad)
{
    if (t->is_trit) return check_packed(bytes, n, from, t->rows, segment < TRIT_CODE_PLANES ? t->G : t->K, bad);
    /* "Every byte of a raw tensor of dtype BOOL MUST be 0 or 1." */
    for (*bad = 0; t->dtype == DTYPE_BOOL && *bad < n; ++*bad)
        if (bytes[*bad] > 1) return "RAW-2";
    return NULL;
}

trit_clause trit_read_segment(struct trit_file *f, const struct trit_tensor *t, unsigned segment, uint8_t *keep,
                              uint8_t digest[TRIT_DIGEST])
{
    uint8_t buffer[1 << 16];
    uint64_t size = trit_segment_size(t, segment), offset = t->offset[segment];
    trit_clause fault = NULL;
    struct trit_sha256 hash;
    trit_sha256_begin(&hash);
    for (uint64_t from = 0; from < size;) {
        size_t bad, n = size - from < sizeof buffer ? (size_t)(size - from) : sizeof buffer;
        uint8_t *bytes = keep != NULL ? keep + (size_t)from : buffer;
        TRY(read_at(f, offset + from, bytes, n));
        trit_sha256_add(&hash, bytes, n);
        if (fault == NULL && (fault = check_bytes(t, segment, bytes, n, from, &bad)) != NULL)
            tell(f, fault, t, offset + from + bad);
        from += n;
    }
    trit_sha256_end(&hash, digest);
    /* "The SHA-256 of each segment MUST equal its digest in the directory." */
    if (memcmp(digest, digest_of(t, segment), TRIT_DIGEST) == 0) return fault;
    tell(f, "SEG-1", t, offset);
    return fault != NULL ? fault : "SEG-1";
}

static trit_clause load_planes(struct trit_file *f, struct trit_weights *w)
{
    uint8_t digest[TRIT_DIGEST], *end = w->memory;
    for (unsigned p = 0; p < TRIT_CODE_PLANES + w->depth; p++) {
        TRY(trit_read_segment(f, w->tensor, p, end, digest));
        w->plane[p] = end;
        end += (size_t)trit_segment_size(w->tensor, p);
    }
    return NULL;
}

trit_clause trit_load(struct trit_file *f, const struct trit_tensor *t, unsigned depth, struct trit_weights *w)
{
    memset(w, 0, sizeof *w);
    w->tensor = t;
    w->depth = depth < t->depth ? depth : t->depth;
    w->shift = t->shift + t->depth - w->depth;
    uint64_t size = 0;
    for (unsigned p = 0; p < TRIT_CODE_PLANES + w->depth; p++) size += trit_segment_size(t, p); /* lie in the file: LAY-4 */
    w->memory = size <= SIZE_MAX ? malloc((size_t)size) : NULL;
    if (w->memory == NULL) return "not enough memory for the tensor";
    trit_clause fault = load_planes(f, w);
    if (fault != NULL) trit_unload(w); /* "A reader MUST NOT give out data that breaks PACK-2, PACK-3 or RAW-2." */
    return fault;
}

void trit_unload(struct trit_weights *w)
{
    free(w->memory);
    memset(w, 0, sizeof *w);
    w->memory = NULL;
}

/* 9 Verification */

static trit_clause check_gap(const struct trit_file *f, uint64_t from, uint64_t to)
{
    uint8_t bytes[64]; /* a gap is shorter: it ends at the next multiple of 64 */
    TRY(read_at(f, from, bytes, (size_t)(to - from)));
    /* "Every byte that belongs to neither preamble, header nor segment MUST be zero." */
    for (size_t i = 0; i < to - from; i++)
        if (bytes[i] != 0) return tell(f, "LAY-3", NULL, from + i);
    return NULL;
}

/* Keeps the first finding and goes on, unless the file cannot be read. */
static trit_clause note(struct trit_file *f, trit_clause clause)
{
    if (clause != NULL && trit_status(clause) == 2) return clause;
    if (f->first == NULL) f->first = clause;
    return NULL;
}

static trit_clause verify_segment(struct trit_file *f, struct trit_tensor *t, unsigned segment)
{
    uint8_t digest[TRIT_DIGEST];
    TRY(note(f, check_gap(f, f->end, t->offset[segment])));
    TRY(note(f, trit_read_segment(f, t, segment, NULL, digest)));
    f->end = t->offset[segment] + trit_segment_size(t, segment);
    return NULL;
}

trit_clause trit_verify(struct trit_file *f)
{
    f->first = NULL;
    f->end = PREAMBLE + (uint64_t)f->header_size;
    TRY(each_segment(f, verify_segment));
    TRY(note(f, check_gap(f, f->end, f->size)));
    return f->first;
}

/* A file that ended or failed while it was read was not verified: it is neither valid nor invalid. */
int trit_status(trit_clause clause)
{
    if (clause == NULL) return 0;
    if (clause[0] < 'A' || clause[0] > 'Z' || strcmp(clause, "READ-4") == 0) return 2;
    return strcmp(clause, "PRE-3") == 0 || strcmp(clause, "PRE-4") == 0 ? 3 : 1;
}

/* SHA-256 (FIPS 180-4), whose letters these are. */

static const uint32_t ROUND[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static uint32_t rotate(uint32_t x, unsigned n) { return x >> n | x << (32 - n); }

static void compress(uint32_t h[8], const uint8_t block[64])
{
    uint32_t w[64], s[8];
    for (size_t i = 0; i < 16; i++)
        w[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 | (uint32_t)block[4 * i + 2] << 8 | block[4 * i + 3];
    for (size_t i = 16; i < 64; i++) {
        uint32_t a = w[i - 15], b = w[i - 2];
        w[i] = w[i - 16] + (rotate(a, 7) ^ rotate(a, 18) ^ a >> 3) + w[i - 7] + (rotate(b, 17) ^ rotate(b, 19) ^ b >> 10);
    }
    memcpy(s, h, sizeof s);
    for (size_t i = 0; i < 64; i++) {
        uint32_t a = s[0], e = s[4];
        uint32_t choice = (e & s[5]) ^ (~e & s[6]), majority = (a & s[1]) ^ (a & s[2]) ^ (s[1] & s[2]);
        uint32_t one = s[7] + (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)) + choice + ROUND[i] + w[i];
        memmove(s + 1, s, 7 * sizeof *s);
        s[4] += one;
        s[0] = one + (rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) + majority;
    }
    for (size_t i = 0; i < 8; i++) h[i] += s[i];
}

void trit_sha256_begin(struct trit_sha256 *hash)
{
    static const uint32_t start[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                      0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    memcpy(hash->h, start, sizeof start);
    hash->length = 0;
}

void trit_sha256_add(struct trit_sha256 *hash, const void *bytes, size_t size)
{
    const uint8_t *from = bytes;
    while (size > 0) {
        size_t used = (size_t)(hash->length % 64), n = size < 64 - used ? size : 64 - used;
        memcpy(hash->block + used, from, n);
        hash->length += n;
        from += n;
        size -= n;
        if (used + n == 64) compress(hash->h, hash->block);
    }
}

void trit_sha256_end(struct trit_sha256 *hash, uint8_t digest[TRIT_DIGEST])
{
    static const uint8_t padding[64] = {0x80};
    uint64_t bits = hash->length * 8; /* length < 2^61 in any file that can be read */
    uint8_t length[8];
    for (size_t i = 0; i < 8; i++) length[i] = (uint8_t)(bits >> (56 - 8 * i));
    trit_sha256_add(hash, padding, 64 - (size_t)((hash->length + 8) % 64));
    trit_sha256_add(hash, length, sizeof length);
    for (size_t i = 0; i < TRIT_DIGEST; i++) digest[i] = (uint8_t)(hash->h[i / 4] >> (24 - 8 * (i % 4)));
}
