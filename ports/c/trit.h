/* trit.h - read, verify and decode .trit files, version 1.0 of SPEC.md.
 *
 * Every function that can find fault returns a trit_clause: NULL where nothing is broken, the id of the requirement
 * that is ("PACK-2"), or, in lower case, what kept it from finding out ("cannot read the file"). */
#ifndef TRIT_H
#define TRIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef const char *trit_clause;

enum {
    TRIT_MAX_DEPTH = 4,
    TRIT_MAX_RANK = 8,
    TRIT_STEPS = 27,
    TRIT_CODE_PLANES = 3,
    TRIT_MAX_SEGMENTS = TRIT_CODE_PLANES + TRIT_MAX_DEPTH,
    TRIT_DIGEST = 32 /* bytes of a SHA-256 */
};

/* Chapters 2 and 3: matrices of trits, in C order. */

unsigned trit_largest_level(unsigned depth); /* H */
trit_clause trit_split(const int8_t *levels, size_t n, unsigned depth, unsigned p, int8_t *plane); /* plane t_p */
trit_clause trit_join(const int8_t *const planes[], unsigned depth, size_t n, int8_t *levels); /* least significant first */

uint64_t trit_byte_rows(uint64_t rows); /* ceil(rows / 5) */
trit_clause trit_pack(const int8_t *trits, size_t rows, size_t columns, uint8_t *packed);
trit_clause trit_unpack(const uint8_t *packed, size_t rows, size_t columns, int8_t *trits);

/* Chapter 6: what the header says. Text and digests point into the header and live as long as the file is open. */

struct trit_text {
    const uint8_t *bytes;
    size_t size;
};

struct trit_dtype {
    const char *name;
    unsigned bytes; /* an element */
};

enum trit_float { TRIT_F32, TRIT_F16, TRIT_BF16, TRIT_FLOATS }; /* the first dtypes of trit_dtypes */
extern const struct trit_dtype trit_dtypes[];

struct trit_tensor {
    struct trit_text name;
    bool is_trit;
    unsigned dtype; /* index into trit_dtypes */
    unsigned rank;
    uint64_t shape[TRIT_MAX_RANK];
    uint64_t elements;
    const uint8_t *digests; /* of the first segment; trit_digest finds the others */
    uint64_t offset[TRIT_MAX_SEGMENTS];
    /* of a trit tensor only: */
    uint64_t rows, K, G;
    unsigned depth, shift, group_size;
    const uint8_t *codebook; /* 27 steps, little-endian */
};

/* Told of each finding; *at* is a byte of the file. A clause of "ignored" tells of a key that VER-1 would refuse. */
typedef void (*trit_listener)(void *context, trit_clause clause, struct trit_text tensor, uint64_t at);

struct trit_file {
    int descriptor;
    uint64_t size; /* when opened */
    unsigned major, minor;
    uint8_t identity[TRIT_DIGEST];
    uint8_t *header;
    size_t header_size;
    size_t metadata_at; /* where the first pair stands in the header */
    size_t metadata_pairs;
    struct trit_tensor *tensors; /* the directory */
    size_t count;
    trit_listener tell;
    void *context;
    uint64_t end;      /* of the last segment placed or checked */
    trit_clause first; /* the first finding of trit_verify */
};

/* Chapters 6 to 9. trit_open checks all that the preamble, the header and the length of the file show, trit_verify the
 * segments and gaps too, in constant memory. Call trit_close whatever trit_open returned. */

trit_clause trit_open(struct trit_file *file, const char *path, trit_listener tell, void *context);
trit_clause trit_verify(struct trit_file *file);
void trit_close(struct trit_file *file);
int trit_status(trit_clause clause); /* 0 valid, 1 invalid, 2 not read, 3 unsupported */

void trit_metadata(const struct trit_file *file, size_t *at, struct trit_text *key, struct trit_text *value); /* next pair */
const struct trit_tensor *trit_find(const struct trit_file *file, struct trit_text name);
unsigned trit_segments(const struct trit_tensor *tensor);
uint64_t trit_segment_size(const struct trit_tensor *tensor, unsigned segment);

/* Reads and checks a whole segment; *keep* is NULL or has room for it, *digest* is what the bytes hash to. */
trit_clause trit_read_segment(struct trit_file *file, const struct trit_tensor *tensor, unsigned segment, uint8_t *keep,
                              uint8_t digest[TRIT_DIGEST]);

/* Chapter 5: the codes and the top *depth* weight planes of a trit tensor, checked, and what they decode to. */

struct trit_weights {
    const struct trit_tensor *tensor;
    unsigned depth, shift;
    const uint8_t *plane[TRIT_MAX_SEGMENTS]; /* packed, in the order of 5.2 */
    uint8_t *memory;
};

trit_clause trit_load(struct trit_file *file, const struct trit_tensor *tensor, unsigned depth, struct trit_weights *weights);
void trit_unload(struct trit_weights *weights);
void trit_decode_codes(const struct trit_weights *weights, uint64_t row, uint8_t *codes);  /* G of them */
void trit_decode_levels(const struct trit_weights *weights, uint64_t row, int8_t *levels); /* K of them */
void trit_decode_values(const struct trit_weights *weights, const uint8_t *codes, const int8_t *levels, enum trit_float dtype,
                        uint8_t *values); /* K of them, little-endian */

uint32_t trit_product(uint32_t step, int multiple);           /* bit patterns of binary32 */
uint32_t trit_round(uint32_t binary32, enum trit_float dtype); /* to that of dtype */

struct trit_sha256 {
    uint32_t h[8];
    uint64_t length;
    uint8_t block[64];
};

void trit_sha256_begin(struct trit_sha256 *hash);
void trit_sha256_add(struct trit_sha256 *hash, const void *bytes, size_t size);
void trit_sha256_end(struct trit_sha256 *hash, uint8_t digest[TRIT_DIGEST]);

#endif
