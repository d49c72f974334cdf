// The .trit format, version 1.0: a reader, verifier and decoder, in the order of SPEC.md's chapters.
//
// This file neither imports nor exports. A page opened from file:// may load a classic script but no module, so it
// is both: a page takes it by <script src>, Node by `import "./trit.js"`. Both find it all in `globalThis.trit`,
// which the last lines set.
//
// A *source* is anything with `length` (Number or BigInt) and `read(offset, size)`, which takes a BigInt and a Number
// and gives a Uint8Array, or a promise of one; it may be shorter than `size` only where the source has ended.
//
// Numbers. What is a u64 in the file is read as a BigInt, and so are all offsets. A Number holds what is proved small:
// SHAPE-2 bounds the elements of a tensor, and with them its axes, rows, K and G, by 2^48; a segment has at most
// 8 bytes an element, so 2^51 bytes; and every integer up to 2^53 is a Number exactly.
"use strict";

// 1 Limits -------------------------------------------------------------------------------------------------------

const MAX_HEADER = 67_108_864n;
const MAX_FILE = 2n ** 63n - 1n;
const MAX_NESTING = 8;
const MAX_TENSORS = 1_048_576;
const MAX_NAME = 512;
const MAX_METADATA = 1_024;
const MAX_METADATA_VALUE = 1_048_576;
const MAX_RANK = 8;
const MAX_ELEMENTS = 2n ** 48n;
const MAX_GROUP_SIZE = 65_536;
const MAX_DEPTH = 4;

const CHUNK = 2 ** 20; // bytes read at a time
const MAX_IGNORED = 100; // unknown keys that are remembered, to be shown

/** What breaks a requirement: its id, and where known the tensor and the byte of the file. */
class TritError extends Error {
  constructor(clause, message, { tensor = null, byte = null } = {}) {
    super(message);
    Object.assign(this, { name: "TritError", clause, tensor, byte });
  }
}

/** Text from a file, fit for a terminal: quoted, ASCII, and short. */
function quote(text) {
  const short = text.length > 64 ? `${text.slice(0, 64)}...` : text;
  return JSON.stringify(short).replace(/[^ -~]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

// 2 Trits and levels ---------------------------------------------------------------------------------------------

const largestLevel = (d) => (3 ** d - 1) / 2; // H

/** Levels (Int8Array) as *depth* planes of trits, the least significant first. */
function split(levels, depth) {
  const H = largestLevel(depth);
  // TRIT-2: "A level of depth d MUST lie in -H..H, where H = (3^d - 1)/2."
  const wrong = levels.find((k) => k < -H || k > H);
  if (wrong !== undefined) throw new TritError("TRIT-2", `a level of depth ${depth} is ${wrong}`);
  return Array.from({ length: depth }, (_, p) => levels.map((k) => (Math.floor((k + H) / 3 ** p) % 3) - 1));
}

/** The inverse of `split`: planes of one length (Int8Array), the least significant first, as levels. */
function join(planes) {
  planes.forEach(checkTrits);
  return planes[0].map((_, i) => planes.reduce((k, plane, p) => k + plane[i] * 3 ** p, 0));
}

function checkTrits(trits) {
  // TRIT-1: "A trit MUST be -1, 0 or +1."
  const wrong = trits.find((t) => t < -1 || t > 1);
  if (wrong !== undefined) throw new TritError("TRIT-1", `a trit is ${wrong}`);
}

// 3 Packing ------------------------------------------------------------------------------------------------------

const ROWS_PER_BYTE = 5;
const MAX_BYTE = 242;
const ZEROS = 121; // the byte of five trits of 0

/** TRIT_OF[i][byte] is the trit of the byte's row i; there is none above MAX_BYTE. */
const TRIT_OF = Array.from({ length: ROWS_PER_BYTE }, (_, i) =>
  Int8Array.from({ length: MAX_BYTE + 1 }, (_, byte) => (Math.floor(byte / 3 ** i) % 3) - 1));

// The quotient's fraction is a multiple of 1/5; up to 2^48 a Number tells it from 0, so that both are exact.
const byteRows = (rows) => Math.ceil(rows / ROWS_PER_BYTE);
const byteRowOf = (row) => Math.floor(row / ROWS_PER_BYTE);

/** Trits (Int8Array, *rows* by *columns*) as bytes. */
function pack(trits, rows, columns) {
  if (trits.length !== rows * columns) throw new TritError("PACK-1", `${trits.length} trits, not ${rows} x ${columns}`);
  checkTrits(trits);
  // PACK-1: "A plane of R rows and C columns MUST be packed as ceil(R/5) rows of C bytes, in C order, with
  // `byte[r, j] = sum over i = 0..4 of (t[5r+i, j] + 1) * 3^i`."
  const packed = new Uint8Array(byteRows(rows) * columns).fill(ZEROS); // the sum of the + 1
  trits.forEach((t, index) => {
    const row = Math.floor(index / columns);
    packed[byteRowOf(row) * columns + (index % columns)] += t * 3 ** (row % ROWS_PER_BYTE);
  });
  return packed;
}

/** The inverse of `pack`. */
function unpack(packed, rows, columns) {
  if (packed.length !== byteRows(rows) * columns) throw new TritError("PACK-1", `${packed.length} bytes packed`);
  const wrong = packingDefect(packed, 0, rows, columns);
  if (wrong) throw new TritError(wrong.clause, wrong.message);
  return Int8Array.from({ length: rows * columns }, (_, index) => {
    const row = Math.floor(index / columns);
    return TRIT_OF[row % ROWS_PER_BYTE][packed[byteRowOf(row) * columns + (index % columns)]];
  });
}

/** The first defect in the *bytes* of a plane that begin at its byte *start*, or null. */
function packingDefect(bytes, start, rows, columns) {
  const used = rows % ROWS_PER_BYTE; // rows in the last byte row, 0 where it is full
  const padded = used ? (byteRows(rows) - 1) * columns - start : bytes.length; // where the last byte row begins
  const padding = largestLevel(ROWS_PER_BYTE - used); // digits that are all 1
  for (let i = 0; i < bytes.length; i++) {
    const byte = bytes[i];
    // PACK-2: "Every byte of a packed plane MUST be at most 242."
    if (byte > MAX_BYTE) return { clause: "PACK-2", index: start + i, message: `the byte is ${byte}, above 242` };
    // PACK-3: "A trit that pads the last byte row MUST be 0."
    if (i >= padded && Math.floor(byte / 3 ** used) !== padding) {
      return { clause: "PACK-3", index: start + i, message: `the byte is ${byte}, whose padding is not zero` };
    }
  }
  return null;
}

// 4 Codebook and codes -------------------------------------------------------------------------------------------

const STEPS = 27;
const STEP_BYTES = 4;
const [LEAST_STEP, LARGEST_STEP] = [0x00800000, 0x7f7fffff]; // the bits of positive, normal, finite binary32
const STEP_MULTIPLE = 64;
const OVERFLOW = { F32: 2 ** 128, F16: 65520, BF16: 2 ** 128 - 2 ** 119 }; // what rounds to infinity

/** Checks a codebook (27 binary32, little-endian) but for CB-5; *fail* makes an error of a clause and a message. */
function checkCodebook(codebook, fail) {
  // CB-1: "A codebook MUST hold exactly 27 steps of binary32."
  if (codebook.length !== STEPS * STEP_BYTES) throw fail("CB-1", `the codebook has ${codebook.length} bytes, not 108`);
  const view = new DataView(codebook.buffer, codebook.byteOffset, codebook.length);
  const bits = Array.from({ length: STEPS }, (_, c) => view.getUint32(STEP_BYTES * c, true));
  const check = (clause, message, holds) => {
    const wrong = bits.findIndex((step, c) => !holds(step, c));
    if (wrong >= 0) throw fail(clause, `step ${wrong} has the bits 0x${bits[wrong].toString(16)}, ${message}`);
  };
  // CB-2: "Every step MUST be positive, normal and finite."
  check("CB-2", "not positive, normal and finite", (step) => step >= LEAST_STEP && step <= LARGEST_STEP);
  // CB-3: "The steps MUST be strictly increasing."
  check("CB-3", "not above the step before", (step, c) => c === 0 || step > bits[c - 1]);
  // CB-4: "The low six bits of every step's significand MUST be zero."
  check("CB-4", "not a multiple of 64", (step) => step % STEP_MULTIPLE === 0);
}

/** Step *c* of a codebook. */
function stepOf(codebook, c) {
  return new DataView(codebook.buffer, codebook.byteOffset, codebook.length).getFloat32(STEP_BYTES * c, true);
}

// CODE-1: "A code MUST lie in 0..26." It does: three trits make a level of depth 3, which is -13..13.
const CODE_PLANES = 3;
const CODE_OF_LEVEL_0 = largestLevel(CODE_PLANES);

// 5 Trit tensors -------------------------------------------------------------------------------------------------

/** A shape of axes (BigInt) as Numbers, after its limits. */
function checkShape(axes, fail) {
  // SHAPE-2: "The product of a tensor's non-zero axes MUST be at most 2^48."
  let product = 1n;
  for (const axis of axes) {
    if (axis !== 0n) product *= axis;
    if (product > MAX_ELEMENTS) throw fail("SHAPE-2", `the axes ${axes.join(", ")} make more than 2^48 elements`);
  }
  return axes.map(Number); // exact: each is at most 2^48
}

/** The rules of a trit entry that bind several fields. */
function checkTritTensor({ shape, depth, shift, dtype, codebook }, fail) {
  // TEN-1: "A trit tensor MUST have a rank of at least 1 and no axis of 0."
  if (shape.length === 0 || shape.includes(0)) throw fail("TEN-1", `a trit tensor of the shape [${shape.join(", ")}]`);
  // CB-5: "The largest value, `step[26] * 3^shift * H`, rounded to the tensor's dtype, MUST be finite."
  const largest = stepOf(codebook, STEPS - 1) * 3 ** shift * largestLevel(depth); // 24 bits: exact in binary64
  if (largest >= OVERFLOW[dtype]) throw fail("CB-5", `the largest value, ${largest}, overflows ${dtype}`);
}

/** The matrix of a trit tensor: rows by K, in G groups a row. */
function matrixOf({ shape, group_size }) {
  const K = shape.at(-1);
  const rows = shape.slice(0, -1).reduce((product, axis) => product * axis, 1);
  // Exact: the quotient, at most 2^48 / group_size, is off by 2^-5 / group_size at most, and its fraction is 0 or at
  // least 1 / group_size.
  return { rows, K, G: Math.ceil(K / group_size) };
}

const VALUE_BYTES = { F32: 4, F16: 2, BF16: 2 };

/** The bits of every weight that a tensor can hold: those of code c and level k are at c * (2H + 1) + k + H. */
function valueTable({ codebook, shift }, depth, dtype) {
  const H = largestLevel(depth);
  const table = [];
  for (let c = 0; c < STEPS; c++) {
    const step = stepOf(codebook, c);
    // TEN-6: "A weight MUST decode to step[c] * 3^shift * k, exactly, in binary32."
    // TEN-7: "A weight of level 0 MUST decode to +0." It does: -1 + 1 is +0, and so is its product with a step.
    for (let k = -H; k <= H; k++) table.push(roundTo[dtype](float32Bits(step * 3 ** shift * k)));
  }
  return Uint32Array.from(table);
}

const SCRATCH = new DataView(new ArrayBuffer(4));

function float32Bits(value) {
  SCRATCH.setFloat32(0, value);
  return SCRATCH.getUint32(0);
}

// TEN-8: "A weight decoded to binary16 or bfloat16 MUST be the exact value rounded once, to nearest, ties to even."
const roundTo = { F32: (bits) => bits, F16: float16Bits, BF16: bfloat16Bits };

/** x / 2^n to the nearest integer, ties to even (1 <= n <= 25, 0 <= x < 2^31). */
function shiftRounded(x, n) {
  const quotient = x >>> n;
  const rest = x & (2 ** n - 1);
  const half = 2 ** (n - 1);
  return quotient + (rest > half || (rest === half && quotient % 2 === 1) ? 1 : 0);
}

/** Of a finite binary32. A carry out of the significand raises the exponent, up to that of infinity, as it should. */
function bfloat16Bits(bits) {
  return ((bits >>> 31) << 15) | shiftRounded(bits & 0x7fffffff, 16);
}

function float16Bits(bits) {
  const sign = (bits >>> 31) << 15;
  const magnitude = bits & 0x7fffffff;
  const exponent = (magnitude >>> 23) - 127;
  if (exponent > 15) return sign | 0x7c00; // 2^16 and more
  if (exponent >= -14) return sign | shiftRounded(magnitude - (112 << 23), 13); // from a bias of 127 to one of 15
  const significand = (magnitude & 0x7fffff) | 0x800000; // of a subnormal, in units of 2^-24 after the shift
  return sign | shiftRounded(significand, Math.min(-1 - exponent, 25)); // a 24-bit number shifted by 25 rounds to 0
}

/** The segments of the top *depth* planes of levels, the least significant first. */
function levelPlanes(segments, depth) {
  // TEN-9: "The top d' planes of a tensor of depth d MUST be read as a tensor of depth d' whose shift is greater by
  // d - d'."
  return segments.slice(CODE_PLANES, CODE_PLANES + depth).reverse();
}

/**
 * Decodes a trit tensor, given its *segments*, in pieces of a row that follow each other in C order:
 * `levels` (Int8Array), `codes` (Uint8Array, one a group) and `values` (the bytes of the weights in *dtype*).
 * Checks each segment that it needs whole, before it gives out anything.
 */
async function* decode(source, tensor, segments, { depth = tensor.depth, dtype = tensor.dtype } = {}) {
  const { rows, K, G } = matrixOf(tensor);
  const d = Math.min(depth, tensor.depth);
  const codePlanes = segments.slice(0, CODE_PLANES);
  const planes = levelPlanes(segments, d);
  await checkSegments(source, [...codePlanes, ...planes]);
  const readCodes = rowReader(source, codePlanes, G);
  const readLevels = rowReader(source, planes, K);
  const table = valueTable({ ...tensor, shift: tensor.shift + tensor.depth - d }, d, dtype);
  const size = tensor.group_size;
  const groups = Math.floor(MAX_GROUP_SIZE / size); // in a piece
  for (let row = 0; row < rows; row++) {
    for (let g = 0; g < G; g += groups) {
      const count = Math.min(groups, G - g);
      const codes = Uint8Array.from(await readCodes(row, g, count), (level) => level + CODE_OF_LEVEL_0);
      const levels = await readLevels(row, g * size, Math.min(count * size, K - g * size));
      yield { levels, codes, values: valuesOf(levels, codes, size, table, d, VALUE_BYTES[dtype]) };
    }
  }
}

function valuesOf(levels, codes, group_size, table, depth, width) {
  const H = largestLevel(depth);
  const values = new DataView(new ArrayBuffer(width * levels.length));
  for (let j = 0; j < levels.length; j++) {
    const bits = table[codes[Math.floor(j / group_size)] * (2 * H + 1) + levels[j] + H];
    if (width === 4) values.setUint32(4 * j, bits, true);
    else values.setUint16(2 * j, bits, true);
  }
  return new Uint8Array(values.buffer);
}

/** A function that reads levels of one row, from packed planes of *columns* columns, the least significant first. */
function rowReader(source, planes, columns) {
  const windows = planes.map((plane) => new Window(source, plane.offset + BigInt(plane.size)));
  return async (row, column, count) => {
    const levels = new Int8Array(count);
    const trit = TRIT_OF[row % ROWS_PER_BYTE];
    for (let p = 0; p < planes.length; p++) {
      const start = BigInt(byteRowOf(row) * columns + column); // at most 2^48
      const bytes = await windows[p].read(planes[p].offset + start, count);
      for (let j = 0; j < count; j++) {
        // READ-2: "A reader MUST NOT give out data that breaks PACK-2, PACK-3 or RAW-2." (The file may have changed.)
        if (bytes[j] > MAX_BYTE) throw new TritError("PACK-2", `the byte is ${bytes[j]}, above 242`);
        levels[j] += trit[bytes[j]] * 3 ** p;
      }
    }
    return levels;
  };
}

/** How often each level, from -H to H, stands in a trit tensor. */
async function countLevels(source, tensor, segments) {
  const { rows, K } = matrixOf(tensor);
  const planes = levelPlanes(segments, tensor.depth);
  const windows = planes.map((plane) => new Window(source, plane.offset + BigInt(plane.size)));
  const H = largestLevel(tensor.depth);
  const counts = new Array(2 * H + 1).fill(0);
  for (let start = 0; start < planes[0].size; start += CHUNK) {
    const size = Math.min(CHUNK, planes[0].size - start);
    const chunks = [];
    for (let p = 0; p < planes.length; p++) chunks.push(await windows[p].read(planes[p].offset + BigInt(start), size));
    for (let i = 0; i < ROWS_PER_BYTE; i++) {
      const end = Math.min(size, byteRows(rows - i) * K - start); // behind it row i of the byte is padding
      for (let j = 0; j < end; j++) {
        let k = H;
        for (let p = 0; p < chunks.length; p++) k += TRIT_OF[i][chunks[p][j]] * 3 ** p;
        counts[k] += 1;
      }
    }
  }
  return counts;
}

// 6.1 Preamble ---------------------------------------------------------------------------------------------------

const PREAMBLE_SIZE = 64;
const MAGIC = [0x89, 0x54, 0x52, 0x49, 0x54, 0x0d, 0x0a, 0x1a];
const MAJOR = 1;

/** Reads and checks the preamble, in the order of 6.1; PRE-8 is left to `readHeader`. */
async function readPreamble(source) {
  const length = BigInt(source.length);
  // PRE-1: "A file MUST be at least 64 bytes long."
  if (length < PREAMBLE_SIZE) throw new TritError("PRE-1", `the file has ${length} bytes, fewer than 64`);
  const bytes = await readExactly(source, 0n, PREAMBLE_SIZE);
  const view = new DataView(bytes.buffer, bytes.byteOffset, PREAMBLE_SIZE);
  const fail = (clause, byte, message) => new TritError(clause, message, { byte });
  // PRE-2: "The file MUST begin with the eight bytes of the magic."
  if (!MAGIC.every((byte, i) => bytes[i] === byte)) throw fail("PRE-2", 0n, "this is not a .trit file");
  // PRE-3: "The major version MUST be 1."
  const version = [view.getUint16(8, true), view.getUint16(10, true)];
  if (version[0] !== MAJOR) throw fail("PRE-3", 8n, `the major version is ${version[0]}`);
  // PRE-4: "The flags MUST be 0."
  const flags = view.getUint32(12, true);
  if (flags !== 0) throw fail("PRE-4", 12n, `the flags are 0x${flags.toString(16)}`);
  // PRE-5: "The header size MUST lie in 1..67108864."
  const size = view.getBigUint64(16, true);
  if (size < 1n || size > MAX_HEADER) throw fail("PRE-5", 16n, `the header size is ${size}`);
  // PRE-6: "The file size MUST equal the length of the file."
  const fileSize = view.getBigUint64(24, true);
  if (fileSize !== length) throw fail("PRE-6", 24n, `the file size is ${fileSize}, and the file has ${length} bytes`);
  // PRE-7: "The header MUST end within the file."
  if (BigInt(PREAMBLE_SIZE) + size > length) throw fail("PRE-7", 16n, `the header of ${size} bytes is cut off`);
  return { version, headerSize: Number(size), digest: bytes.slice(32) };
}

// 6.2 Canonical MessagePack --------------------------------------------------------------------------------------

/** By first byte: the type, the bytes of the value or length that follow, and the least that needs so many. */
const FORMS = new Map([
  [0xcc, ["integer", 1, 2 ** 7]], [0xcd, ["integer", 2, 2 ** 8]], [0xce, ["integer", 4, 2 ** 16]],
  [0xcf, ["integer", 8, 2 ** 32]],
  [0xd9, ["str", 1, 32]], [0xda, ["str", 2, 2 ** 8]], [0xdb, ["str", 4, 2 ** 16]],
  [0xc4, ["bin", 1, 0]], [0xc5, ["bin", 2, 2 ** 8]], [0xc6, ["bin", 4, 2 ** 16]],
  [0xdc, ["array", 2, 16]], [0xdd, ["array", 4, 2 ** 16]],
  [0xde, ["map", 2, 16]], [0xdf, ["map", 4, 2 ** 16]],
]);

/** By first byte, the forms that hold the value or length themselves: the type, and that value or length. */
const FIXED_FORMS = [["integer", 128], ["map", 16], ["array", 16], ["str", 32]].flatMap(([type, count]) =>
  Array.from({ length: count }, (_, value) => [type, value]));

const SHORT = 16; // bytes of ASCII that are text sooner without a decoder: most keys
const UTF8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Reads values one after the other; whoever reads says which type is next. */
class Cursor {
  constructor(bytes, minor) {
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    this.minor = minor; // of the file's version
    this.position = 0;
    this.start = 0; // of the value read last
    this.nesting = 0; // arrays and maps around the next value
    this.ignored = new Set(); // unknown keys
  }

  error(clause, message) {
    return new TritError(clause, message, { byte: BigInt(PREAMBLE_SIZE + this.start) });
  }

  /** Passes over *size* bytes; returns where they begin. */
  take(size) {
    // MP-5: "The header MUST be exactly one value, with nothing cut off and nothing after it."
    if (size > this.bytes.length - this.position) throw this.error("MP-5", "the header ends within a value");
    this.position += size;
    return this.position - size;
  }

  /** The type of the next value, and the value of an integer (Number or BigInt) or the length of anything else. */
  head(isKey = false) {
    this.start = this.position;
    const first = this.bytes[this.take(1)];
    const [type, value] = FIXED_FORMS[first] ?? this.longHead(first);
    // MP-6: "Arrays and maps MUST be nested at most 8 deep."
    if ((type === "array" || type === "map") && this.nesting === MAX_NESTING && !isKey) {
      throw this.error("MP-6", "an array or map is nested 9 deep");
    }
    return { type, value };
  }

  longHead(first) {
    // MP-1: "Every value in the header MUST be an unsigned integer, a str, a bin, an array or a map."
    if (!FORMS.has(first)) throw this.error("MP-1", `a value begins with 0x${first.toString(16)}`);
    const [type, width, least] = FORMS.get(first);
    const value = this.bigEndian(width);
    // MP-2: "Every integer and every length MUST be in its shortest form."
    if (value < least) throw this.error("MP-2", `${value} takes ${width} bytes`);
    return [type, value];
  }

  bigEndian(width) {
    const at = this.take(width);
    if (width === 1) return this.view.getUint8(at);
    if (width === 2) return this.view.getUint16(at);
    return width === 4 ? this.view.getUint32(at) : this.view.getBigUint64(at);
  }

  /** Reads the head of a value of *type*: an integer's value, or the length of anything else. */
  expect(type) {
    const { type: found, value } = this.head();
    if (found === type) return value;
    this.position = this.start;
    const wrong = this.error("TYPE-1", `this is of type ${found}, not ${type}`);
    this.skip(); // what breaks 6.2 in the value comes before its type
    // TYPE-1: "A value in the header MUST have the type that the tables of this chapter give it."
    throw wrong;
  }

  integer() {
    return BigInt(this.expect("integer"));
  }

  bin() {
    const size = this.expect("bin");
    const at = this.take(size);
    return this.bytes.subarray(at, at + size);
  }

  /** A str: its text, and where its bytes are; *clause* is what a length outside *least*..*most* breaks. */
  str({ least = 0, most = Infinity, clause = null } = {}) {
    const size = this.expect("str");
    const wrong = size < least || size > most;
    const error = wrong && this.error(clause, `the length is ${size}, not ${least}..${most}`);
    if (wrong && size > this.bytes.length - this.position) throw error; // whatever else is wrong with it
    const at = this.take(size);
    const text = this.text(at, size);
    if (wrong) throw error;
    return { at, size, text };
  }

  /** The text of *size* bytes. */
  text(at, size) {
    if (size <= SHORT) {
      let ascii = "";
      for (let i = at; i < at + size && this.bytes[i] < 0x80; i++) ascii += String.fromCharCode(this.bytes[i]);
      if (ascii.length === size) return ascii;
    }
    try {
      return UTF8.decode(this.bytes.subarray(at, at + size));
    } catch {
      // MP-4: "Every str MUST be well-formed UTF-8."
      throw this.error("MP-4", "a str is not UTF-8");
    }
  }

  /** Goes through an array whose head has been read; the caller reads each value. */
  *values(count) {
    this.nesting += 1;
    for (let i = 0; i < count; i++) yield i;
    this.nesting -= 1;
  }

  /** Gives the keys of a map whose head has been read; the caller reads the value after each. */
  *keys(count, limits) {
    let before = null;
    for (const _ of this.values(count)) {
      const { type } = this.head(true);
      // MP-3: "The keys of a map MUST be str in strictly increasing order of their UTF-8 bytes."
      if (type !== "str") throw this.error("MP-3", `a key is of type ${type}, not str`);
      this.position = this.start;
      const key = this.str(limits);
      if (before && this.compare(before, key) >= 0) throw this.error("MP-3", `${quote(key.text)} is out of order`);
      before = key;
      yield key.text;
    }
  }

  /** The order of the UTF-8 bytes of two strs: negative, 0 or positive. */
  compare(a, b) {
    const size = Math.min(a.size, b.size);
    for (let i = 0; i < size; i++) {
      const difference = this.bytes[a.at + i] - this.bytes[b.at + i];
      if (difference !== 0) return difference;
    }
    return a.size - b.size;
  }

  /** Passes over one value of any type. It takes a byte at least for each step, and recurs 8 deep at most. */
  skip() {
    const { type, value } = this.head();
    if (type === "bin") this.take(value);
    if (type === "str") this.text(this.take(value), value);
    if (type === "array") for (const _ of this.values(value)) this.skip();
    if (type === "map") for (const _ of this.keys(value)) this.skip();
  }
}

// 6.3 Header -----------------------------------------------------------------------------------------------------

const HEADER_KEYS = { metadata: readMetadata, tensors: readTensors, version: readVersion };

/** Reads a map whose keys have *readers*; returns its fields. *clause* is what a missing key breaks. */
function readMap(cursor, readers, clause) {
  const fields = {};
  const count = cursor.expect("map");
  const begin = cursor.start;
  for (const key of cursor.keys(count)) {
    if (Object.hasOwn(readers, key)) fields[key] = readers[key](cursor, fields);
    else ignoreKey(cursor, key);
  }
  const missing = Object.keys(readers).find((key) => !Object.hasOwn(fields, key));
  cursor.start = begin;
  if (missing) throw cursor.error(clause, `there is no key ${missing}`);
  return fields;
}

function ignoreKey(cursor, key) {
  const wrong = cursor.error("VER-1", `the key ${quote(key)} is unknown`);
  cursor.skip();
  // VER-1: "A key that is not in the table of the header, or of the entry's kind, MUST NOT stand there in a file of
  // minor version 0."
  if (cursor.minor === 0) throw wrong;
  if (cursor.ignored.size < MAX_IGNORED) cursor.ignored.add(key);
}

function readMetadata(cursor) {
  const count = cursor.expect("map");
  // HDR-5: "The metadata MUST hold at most 1024 pairs."
  if (count > MAX_METADATA) throw cursor.error("HDR-5", `the metadata has ${count} pairs`);
  const metadata = new Map();
  for (const key of cursor.keys(count, NAME_LIMITS)) {
    checkName(cursor, key);
    // HDR-6: "A metadata value MUST be at most 1048576 bytes long."
    metadata.set(key, cursor.str({ most: MAX_METADATA_VALUE, clause: "HDR-6" }).text);
  }
  return metadata;
}

// NAME-1: "A name or a metadata key MUST be 1 to 512 bytes long."
const NAME_LIMITS = { least: 1, most: MAX_NAME, clause: "NAME-1" };

const CONTROL = /[\u0000-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u2069\ufeff]/u;

function checkName(cursor, name) {
  // NAME-2: "A name or a metadata key MUST NOT hold a control character."
  if (CONTROL.test(name)) throw cursor.error("NAME-2", `${quote(name)} holds a control character`);
}

function readTensors(cursor) {
  const count = cursor.expect("array");
  // HDR-4: "The header MUST hold at most 1048576 entries."
  if (count > MAX_TENSORS) throw cursor.error("HDR-4", `there are ${count} entries`);
  const tensors = [];
  let before = null;
  for (const i of cursor.values(count)) {
    try {
      const { name, tensor } = readEntry(cursor);
      // HDR-3: "The entries MUST stand in strictly increasing order of the UTF-8 bytes of their names."
      if (before && cursor.compare(before, name) >= 0) {
        throw cursor.error("HDR-3", `${quote(tensor.name)} is out of order`);
      }
      before = name;
      tensors.push(tensor);
    } catch (error) {
      error.tensor ??= `entry ${i}`;
      throw error;
    }
  }
  return tensors;
}

function readVersion(cursor) {
  const count = cursor.expect("array");
  if (count !== 2) throw cursor.error("TYPE-1", `the version is an array of ${count} values, not two`);
  return Array.from(cursor.values(count), () => cursor.integer());
}

/** Reads the preamble and the header, and places the segments. */
async function readHeader(source) {
  const { version, headerSize, digest } = await readPreamble(source);
  const bytes = await readExactly(source, BigInt(PREAMBLE_SIZE), headerSize);
  // PRE-8: "The SHA-256 of the header's bytes MUST equal the digest in the preamble."
  if (!equal(new Sha256().update(bytes).digest(), digest)) {
    throw new TritError("PRE-8", "the header's SHA-256 is not that of the preamble", { byte: 32n });
  }
  const cursor = new Cursor(bytes, version[1]);
  // HDR-1: "The header MUST have the keys metadata, tensors and version."
  const fields = readMap(cursor, HEADER_KEYS, "HDR-1");
  cursor.start = cursor.position;
  if (cursor.position < headerSize) throw cursor.error("MP-5", "there are bytes after the header's map");
  // HDR-2: "The version in the header MUST equal the version in the preamble."
  if (!fields.version.every((part, i) => part === BigInt(version[i]))) {
    throw cursor.error("HDR-2", `the version is ${fields.version.join(".")}, the preamble's ${version.join(".")}`);
  }
  const { metadata, tensors } = fields;
  const segments = placeSegments(tensors, headerSize, BigInt(source.length));
  return { identity: digest, version, headerSize, metadata, tensors, segments, ignored: [...cursor.ignored] };
}

// 6.4 Entries ----------------------------------------------------------------------------------------------------

const TRIT_KEYS = {
  codebook: readCodebook, depth: readDepth, dtype: readTritDtype, group_size: readGroupSize, kind: readKind,
  name: readName, sha256: readDigests, shape: readShape, shift: readShift,
};
const RAW_KEYS = { dtype: readRawDtype, kind: readKind, name: readName, sha256: readDigest, shape: readShape };

const TRIT_DTYPES = ["F32", "F16", "BF16"];
const ELEMENT_BYTES = new Map(Object.entries({
  BOOL: 1, U8: 1, I8: 1, F8_E4M3: 1, F8_E5M2: 1, F8_E8M0: 1,
  U16: 2, I16: 2, F16: 2, BF16: 2,
  U32: 4, I32: 4, F32: 4,
  U64: 8, I64: 8, F64: 8, C64: 8,
}));
const DIGEST_SIZE = 32;

/** Reads an entry: its name as `str` gives it, and the tensor. */
function readEntry(cursor) {
  const { kind, begin } = checkKeys(cursor);
  const fields = readMap(cursor, kind === "trit" ? TRIT_KEYS : RAW_KEYS, "ENT-1");
  cursor.start = begin;
  if (kind === "trit") checkTritTensor(fields, (clause, message) => cursor.error(clause, message));
  const { name } = fields;
  fields.name = name.text;
  return { name, tensor: fields };
}

/** Looks ahead, over an entry's keys and for its kind: ENT-1, ENT-2 and VER-1 come before its values. */
function checkKeys(cursor) {
  const { position: begin, nesting } = cursor;
  const found = new Set(); // of the table's keys; of others, one will do
  let kind = null;
  for (const key of cursor.keys(cursor.expect("map"))) {
    found.add(Object.hasOwn(TRIT_KEYS, key) ? key : "");
    if (key === "kind") kind = readKind(cursor);
    else cursor.skip();
  }
  Object.assign(cursor, { position: begin, start: begin, nesting });
  const keys = Object.keys(kind === "trit" ? TRIT_KEYS : RAW_KEYS);
  // ENT-1: "An entry MUST have every key of its kind."
  const missing = ["kind", ...keys].find((key) => !found.has(key));
  if (missing) throw cursor.error("ENT-1", `there is no key ${missing}`);
  const unknown = found.size > keys.length;
  if (unknown && cursor.minor === 0) throw cursor.error("VER-1", `there is a key that a ${kind} entry has not`);
  return { kind, begin };
}

function readKind(cursor) {
  const { text } = cursor.str();
  // ENT-2: "The kind of an entry MUST be trit or raw."
  if (text !== "trit" && text !== "raw") throw cursor.error("ENT-2", `the kind is ${quote(text)}`);
  return text;
}

function readName(cursor) {
  const name = cursor.str(NAME_LIMITS);
  checkName(cursor, name.text);
  return name;
}

function readCodebook(cursor) {
  const codebook = cursor.bin();
  checkCodebook(codebook, (clause, message) => cursor.error(clause, message));
  return codebook;
}

function readDepth(cursor) {
  const depth = cursor.integer();
  // TEN-2: "The depth of a trit tensor MUST be 1, 2, 3 or 4."
  if (depth < 1n || depth > MAX_DEPTH) throw cursor.error("TEN-2", `the depth is ${depth}`);
  return Number(depth);
}

function readShift(cursor, { depth }) {
  const shift = cursor.integer();
  // TEN-3: "The sum of depth and shift MUST be at most 4."
  if (depth !== undefined && BigInt(depth) + shift > MAX_DEPTH) {
    throw cursor.error("TEN-3", `the depth is ${depth} and the shift ${shift}`);
  }
  return Number(shift);
}

function readGroupSize(cursor) {
  const group_size = cursor.integer();
  // TEN-4: "The group size MUST lie in 1..65536."
  if (group_size < 1n || group_size > MAX_GROUP_SIZE) throw cursor.error("TEN-4", `the group size is ${group_size}`);
  return Number(group_size);
}

function readTritDtype(cursor) {
  const { text } = cursor.str();
  // TEN-5: "The dtype of a trit tensor MUST be F32, F16 or BF16."
  if (!TRIT_DTYPES.includes(text)) throw cursor.error("TEN-5", `the dtype is ${quote(text)}`);
  return text;
}

function readRawDtype(cursor) {
  const { text } = cursor.str();
  // RAW-1: "The dtype of a raw tensor MUST be one of the table."
  if (!ELEMENT_BYTES.has(text)) throw cursor.error("RAW-1", `the dtype is ${quote(text)}`);
  return text;
}

function readShape(cursor) {
  const rank = cursor.expect("array");
  // SHAPE-1: "The rank of a tensor MUST be at most 8."
  if (rank > MAX_RANK) throw cursor.error("SHAPE-1", `the rank is ${rank}`);
  const axes = Array.from(cursor.values(rank), () => cursor.integer());
  return checkShape(axes, (clause, message) => cursor.error(clause, message));
}

function readDigest(cursor) {
  const digest = cursor.bin();
  // ENT-3: "An entry MUST hold one digest of 32 bytes for each of its segments."
  if (digest.length !== DIGEST_SIZE) throw cursor.error("ENT-3", `a digest has ${digest.length} bytes`);
  return digest;
}

function readDigests(cursor, { depth }) {
  if (depth === undefined) throw cursor.error("ENT-1", "there is no key depth");
  const count = cursor.expect("array");
  if (count !== CODE_PLANES + depth) throw cursor.error("ENT-3", `${count} digests at depth ${depth}`);
  return Array.from(cursor.values(count), () => readDigest(cursor));
}

// 7 Layout -------------------------------------------------------------------------------------------------------

const ALIGNMENT = 64n;
const align = (x) => ((x + ALIGNMENT - 1n) / ALIGNMENT) * ALIGNMENT;

/** The segments of *tensors*, each with its offset (BigInt), in the order of the file. */
function placeSegments(tensors, headerSize, length) {
  const segments = [];
  // LAY-2: "The first segment MUST begin at align(64 + header size), and each other one at align(end of the one
  // before)."
  let end = align(BigInt(PREAMBLE_SIZE + headerSize));
  for (const segment of segmentsInOrder(tensors)) {
    segment.offset = end;
    segments.push(segment);
    end = align(end + BigInt(segment.size));
    // LAY-5: "The end of the file MUST be at most 2^63 - 1."
    if (end > MAX_FILE) throw new TritError("LAY-5", "a segment ends beyond 2^63 - 1", { tensor: segment.tensor.name });
  }
  // LAY-4: "The file MUST end at align(end of the last segment), or at align(64 + header size) where there are no
  // segments."
  if (end !== length) {
    throw new TritError("LAY-4", `the file has ${length} bytes, and its segments end at ${end}`, { byte: length });
  }
  return segments;
}

// LAY-1: "The segments MUST stand in this order: the raw tensors, in directory order; the three code planes of every
// trit tensor, tensor by tensor; then the most significant weight plane of every trit tensor, then the next plane of
// every tensor that has one, and so on."
function* segmentsInOrder(tensors) {
  for (const tensor of tensors) if (tensor.kind === "raw") yield rawSegment(tensor);
  for (const tensor of tensors) {
    if (tensor.kind === "trit") for (let p = 0; p < CODE_PLANES; p++) yield planeSegment(tensor, p);
  }
  for (let p = CODE_PLANES; p < CODE_PLANES + MAX_DEPTH; p++) {
    for (const tensor of tensors) {
      if (tensor.kind === "trit" && p < CODE_PLANES + tensor.depth) yield planeSegment(tensor, p);
    }
  }
}

function rawSegment(tensor) {
  const size = tensor.shape.reduce((product, axis) => product * axis, ELEMENT_BYTES.get(tensor.dtype));
  return { tensor, plane: null, digest: tensor.sha256, size };
}

/** A segment that is a packed plane: *rows* by *columns* trits, number *plane* of its tensor. */
function planeSegment(tensor, plane) {
  const { rows, K, G } = matrixOf(tensor);
  const columns = plane < CODE_PLANES ? G : K;
  return { tensor, plane, rows, columns, digest: tensor.sha256[plane], size: byteRows(rows) * columns };
}

// 8 Reading ------------------------------------------------------------------------------------------------------

/** Reads *size* bytes, which the caller knows to be within the limits and, by `source.length`, there. */
async function readExactly(source, offset, size) {
  const bytes = await source.read(offset, size);
  // READ-4: "A reader MUST report as an error a file that ends before what its header promises."
  if (bytes.length < size) throw new TritError("READ-4", "the file ended while it was read", { byte: offset });
  return bytes;
}

/** Small reads, CHUNK bytes at most, out of one large one; none goes beyond *end*. */
class Window {
  constructor(source, end = BigInt(source.length)) {
    Object.assign(this, { source, end, start: 0n, bytes: new Uint8Array(0) });
  }

  async read(offset, size) {
    const held = this.start <= offset && offset + BigInt(size) <= this.start + BigInt(this.bytes.length);
    if (!held) {
      const left = this.end - offset;
      const most = left < CHUNK ? Number(left) : CHUNK;
      this.bytes = await readExactly(this.source, offset, Math.max(size, most));
      this.start = offset;
    }
    const at = Number(offset - this.start);
    return this.bytes.subarray(at, at + size);
  }
}

/** Yields the defects of a segment, as errors: the first in what it holds, and that of its digest. */
async function* segmentDefects(window, segment) {
  const { tensor, offset, size } = segment;
  const hash = new Sha256();
  let found = null;
  for (let start = 0; start < size; start += CHUNK) {
    const bytes = await window.read(offset + BigInt(start), Math.min(CHUNK, size - start));
    hash.update(bytes);
    if (found) continue;
    found = contentDefect(segment, bytes, start);
    const at = (index) => ({ tensor: tensor.name, byte: offset + BigInt(index) });
    if (found) yield new TritError(found.clause, found.message, at(found.index));
  }
  // SEG-1: "The SHA-256 of each segment MUST equal its digest in the directory."
  if (!equal(hash.digest(), segment.digest)) {
    yield new TritError("SEG-1", "the segment's SHA-256 is not its digest", { tensor: tensor.name, byte: offset });
  }
}

function contentDefect({ tensor, plane, rows, columns }, bytes, start) {
  if (plane !== null) return packingDefect(bytes, start, rows, columns);
  if (tensor.dtype !== "BOOL") return null;
  // RAW-2: "Every byte of a raw tensor of dtype BOOL MUST be 0 or 1."
  const wrong = bytes.findIndex((byte) => byte > 1);
  return wrong < 0 ? null : { clause: "RAW-2", index: start + wrong, message: `a BOOL is ${bytes[wrong]}` };
}

/** Throws the first defect of *segments*. */
async function checkSegments(source, segments) {
  for (const segment of segments) {
    const window = new Window(source, segment.offset + BigInt(segment.size));
    // READ-3: "A reader that has read a whole segment MUST compare its digest, unless its caller has asked it not to."
    for await (const defect of segmentDefects(window, segment)) throw defect;
  }
}

// 9 Verification -------------------------------------------------------------------------------------------------

/** Yields the defects of what follows the header, in the order of the file. */
async function* dataDefects(source, header) {
  const window = new Window(source);
  let end = BigInt(PREAMBLE_SIZE + header.headerSize);
  for (const segment of header.segments) {
    if (end < segment.offset) yield* gapDefects(window, end, segment.offset);
    yield* segmentDefects(window, segment);
    end = segment.offset + BigInt(segment.size);
  }
  yield* gapDefects(window, end, BigInt(source.length));
}

async function* gapDefects(window, offset, end) {
  const bytes = await window.read(offset, Number(end - offset)); // at most 63: what align adds
  // LAY-3: "Every byte that belongs to neither preamble, header nor segment MUST be zero."
  const wrong = bytes.findIndex((byte) => byte !== 0);
  if (wrong < 0) return;
  yield new TritError("LAY-3", `a byte between the segments is ${bytes[wrong]}`, { byte: offset + BigInt(wrong) });
}

/** A file's verdict: valid, invalid or unsupported, with the first defect. Throws READ-4 and what the source throws. */
async function verify(source) {
  try {
    const header = await readHeader(source);
    for await (const defect of dataDefects(source, header)) throw defect;
    return { ...verdictOf(null), ignored: header.ignored };
  } catch (error) {
    if (!(error instanceof TritError) || error.clause === "READ-4") throw error;
    return { ...verdictOf(error), ignored: [] };
  }
}

function verdictOf(defect) {
  if (defect === null) return { verdict: "valid", clause: null, defect };
  const unsupported = defect.clause === "PRE-3" || defect.clause === "PRE-4";
  return { verdict: unsupported ? "unsupported" : "invalid", clause: defect.clause, defect };
}

// SHA-256 (FIPS 180-4) -------------------------------------------------------------------------------------------

const SHA256_BLOCK = 64;
const SHA256_START = [
  0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
];
const SHA256_ROUNDS = Int32Array.of(
  0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
  0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
  0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
  0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
  0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
  0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
  0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
  0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
);
const schedule = new Int32Array(64); // of the block at hand: nothing in it outlives a call of `compress`

/** Up to 2^53 - 1 bytes, in any number of updates. */
class Sha256 {
  constructor() {
    this.state = Int32Array.from(SHA256_START);
    this.block = new Uint8Array(SHA256_BLOCK);
    this.filled = 0; // bytes in the block
    this.length = 0; // bytes altogether
  }

  update(bytes) {
    this.length += bytes.length;
    let at = 0;
    while (at < bytes.length) {
      if (this.filled === 0 && bytes.length - at >= SHA256_BLOCK) {
        compress(this.state, bytes, at);
        at += SHA256_BLOCK;
        continue;
      }
      const size = Math.min(SHA256_BLOCK - this.filled, bytes.length - at);
      this.block.set(bytes.subarray(at, at + size), this.filled);
      at += size;
      this.filled = (this.filled + size) % SHA256_BLOCK;
      if (this.filled === 0) compress(this.state, this.block, 0);
    }
    return this;
  }

  digest() {
    const bits = BigInt(this.length) * 8n;
    const tail = new Uint8Array(this.filled < SHA256_BLOCK - 8 ? SHA256_BLOCK : 2 * SHA256_BLOCK);
    tail.set(this.block.subarray(0, this.filled));
    tail[this.filled] = 0x80;
    new DataView(tail.buffer).setBigUint64(tail.length - 8, bits);
    for (let at = 0; at < tail.length; at += SHA256_BLOCK) compress(this.state, tail, at);
    const digest = new DataView(new ArrayBuffer(DIGEST_SIZE));
    this.state.forEach((word, i) => digest.setInt32(4 * i, word));
    return new Uint8Array(digest.buffer);
  }
}

function compress(state, bytes, at) {
  const w = schedule;
  for (let i = 0; i < 16; i++, at += 4) {
    w[i] = (bytes[at] << 24) | (bytes[at + 1] << 16) | (bytes[at + 2] << 8) | bytes[at + 3];
  }
  for (let i = 16; i < 64; i++) {
    const x = w[i - 15];
    const y = w[i - 2];
    const s0 = ((x >>> 7) | (x << 25)) ^ ((x >>> 18) | (x << 14)) ^ (x >>> 3);
    const s1 = ((y >>> 17) | (y << 15)) ^ ((y >>> 19) | (y << 13)) ^ (y >>> 10);
    w[i] = (w[i - 16] + s0 + w[i - 7] + s1) | 0;
  }
  let a = state[0], b = state[1], c = state[2], d = state[3], e = state[4], f = state[5], g = state[6], h = state[7];
  for (let i = 0; i < 64; i++) {
    const S1 = ((e >>> 6) | (e << 26)) ^ ((e >>> 11) | (e << 21)) ^ ((e >>> 25) | (e << 7));
    const S0 = ((a >>> 2) | (a << 30)) ^ ((a >>> 13) | (a << 19)) ^ ((a >>> 22) | (a << 10));
    const t1 = (h + S1 + ((e & f) ^ (~e & g)) + SHA256_ROUNDS[i] + w[i]) | 0;
    const t2 = (S0 + ((a & b) ^ (a & c) ^ (b & c))) | 0;
    h = g; g = f; f = e; e = (d + t1) | 0;
    d = c; c = b; b = a; a = (t1 + t2) | 0;
  }
  state[0] += a; state[1] += b; state[2] += c; state[3] += d;
  state[4] += e; state[5] += f; state[6] += g; state[7] += h;
}

/** Whether two digests are the same. */
const equal = (a, b) => a.every((byte, i) => byte === b[i]);

/** Bytes as lowercase hexadecimal. */
function toHex(bytes) {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

globalThis.trit = {
  TritError, Sha256, toHex, quote, split, join, pack, unpack, readHeader, matrixOf, decode, countLevels, checkSegments,
  dataDefects, verdictOf, verify, float16Bits, bfloat16Bits,
};
