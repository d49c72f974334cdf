// The .trit format, version 1.0: a reader, verifier and decoder, in the order of SPEC.md's chapters.
//
// A page opened from file:// may load a classic script but no module, so this file neither imports nor exports: it
// takes `Sha256` from sha256.js and sets `globalThis.trit`, for a page's <script src> and for Node's `import`.
//
// A *source* has `length`, a BigInt, and `read(offset, size)`, which takes a BigInt and a Number and gives a
// Uint8Array, or a promise of one; it may be shorter than `size` only where the source has ended.
//
// Numbers. Lengths of files and offsets in them are BigInts, since they go up to 2^63 - 1. All else is a Number:
// SHAPE-2 bounds the elements of a tensor, and with them its axes, rows, K and G, by 2^48, and a segment has at most
// 8 bytes an element, so 2^51. Up to 2^53 a Number is exact; a larger integer in a header is rounded when it is read,
// but never to one that is within a limit.
"use strict";

// 1.4 Limits ----------------------------------------------------------------------------------------------------------

const MAX_HEADER = 67_108_864;
const MAX_FILE = 2n ** 63n - 1n;
const MAX_NESTING = 8;
const MAX_TENSORS = 1_048_576;
const MAX_NAME = 512;
const MAX_METADATA = 1_024;
const MAX_METADATA_VALUE = 1_048_576;
const MAX_RANK = 8;
const MAX_ELEMENTS = 2 ** 48;
const MAX_GROUP_SIZE = 65_536;
const MAX_DEPTH = 4;

const CHUNK = 2 ** 20; // bytes read at a time
const MAX_IGNORED = 100; // unknown keys that are remembered, to be shown

/** What breaks the requirement *clause*; where known, in which tensor and at which byte of the file. */
class TritError extends Error {
  constructor(clause, message, { tensor = null, byte = null } = {}) {
    super(message);
    Object.assign(this, { clause, tensor, byte });
  }
}

const equal = (a, b) => a.every((value, i) => value === b[i]); // arrays of one length
const viewOf = (bytes) => new DataView(bytes.buffer, bytes.byteOffset, bytes.length);

// 2 Trits and levels --------------------------------------------------------------------------------------------------

const largestLevel = (d) => (3 ** d - 1) / 2; // H

/** Digit p in base 3, less one: a trit of a level plus H, of a byte, of a code. */
const tritOf = (number, p) => (Math.floor(number / 3 ** p) % 3) - 1;

/** Throws the *clause* that is broken by values outside -H..H. */
function checkRange(values, H, clause) {
  const wrong = values.find((value) => value < -H || value > H);
  if (wrong !== undefined) throw new TritError(clause, `${wrong} is not in ${-H}..${H}`);
}

/** Levels (Int8Array) as *depth* planes of trits, the least significant first. */
function split(levels, depth) {
  checkDepth(depth);
  const H = largestLevel(depth);
  // TRIT-2: "A level of depth d MUST lie in -H..H, where H = (3^d - 1)/2."
  checkRange(levels, H, "TRIT-2");
  return Array.from({ length: depth }, (_, p) => levels.map((k) => tritOf(k + H, p)));
}

/** The inverse of `split`. */
function join(planes) {
  checkDepth(planes.length);
  // TRIT-1: "A trit MUST be -1, 0 or +1."
  for (const plane of planes) checkRange(plane, 1, "TRIT-1");
  return planes[0].map((_, i) => planes.reduce((k, plane, p) => k + plane[i] * 3 ** p, 0));
}

/** A depth that a caller asks for is held to the same limit as that of a tensor. */
function checkDepth(depth) {
  if (!(Number.isInteger(depth) && depth >= 1 && depth <= MAX_DEPTH)) throw new TritError("TEN-2", `depth ${depth}`);
}

// 3 Packing -----------------------------------------------------------------------------------------------------------

const ROWS_PER_BYTE = 5;
const MAX_BYTE = 242;
const ZEROS = 121; // the byte of five trits of 0

/** TRIT_OF[i][byte] is the trit of the byte's row i. */
const TRIT_OF = Array.from({ length: ROWS_PER_BYTE }, (_, i) =>
  Int8Array.from({ length: MAX_BYTE + 1 }, (_, byte) => tritOf(byte, i)));

// Exact up to 2^48: the quotient's fraction is 0 or at least 1/5, and a Number tells the two apart.
const byteRows = (rows) => Math.ceil(rows / ROWS_PER_BYTE);
const byteRowOf = (row) => Math.floor(row / ROWS_PER_BYTE);

/** Trits (Int8Array, *rows* by *columns*) as bytes. */
function pack(trits, rows, columns) {
  checkSize(trits, rows * columns);
  checkRange(trits, 1, "TRIT-1");
  // PACK-1: "A plane of R rows and C columns MUST be packed as ceil(R/5) rows of C bytes, in C order, with
  // `byte[r, j] = sum over i = 0..4 of (t[5r+i, j] + 1) * 3^i`."
  const packed = new Uint8Array(byteRows(rows) * columns).fill(ZEROS); // the sum of the + 1
  trits.forEach((t, n) => {
    const [byte, i] = placeOf(n, columns);
    packed[byte] += t * 3 ** i;
  });
  return packed;
}

/** The inverse of `pack`. */
function unpack(packed, rows, columns) {
  checkSize(packed, byteRows(rows) * columns);
  for (const [clause, message] of packingDefects(packed, 0, rows, columns)) throw new TritError(clause, message);
  return Int8Array.from({ length: rows * columns }, (_, n) => {
    const [byte, i] = placeOf(n, columns);
    return TRIT_OF[i][packed[byte]];
  });
}

/** Where trit n of a plane stands: the byte, and the row in it. */
function placeOf(n, columns) {
  const row = Math.floor(n / columns);
  return [byteRowOf(row) * columns + (n % columns), row % ROWS_PER_BYTE];
}

function checkSize(array, size) {
  if (array.length !== size) throw new TritError("PACK-1", `${array.length} values, not ${size}`);
}

/** What is wrong with the *bytes* of a plane that begin at its byte *start*: clause, message, first index of each. */
function packingDefects(bytes, start, rows, columns) {
  const used = rows % ROWS_PER_BYTE || ROWS_PER_BYTE; // rows in the last byte row
  const last = (byteRows(rows) - 1) * columns - start; // where it begins
  const padding = largestLevel(ROWS_PER_BYTE - used); // its digits are all 1
  const isWrong = (byte, i) => i >= last && byte <= MAX_BYTE && Math.floor(byte / 3 ** used) !== padding;
  return [
    // PACK-2: "Every byte of a packed plane MUST be at most 242."
    ["PACK-2", "a byte is above 242", bytes.findIndex((byte) => byte > MAX_BYTE)],
    // PACK-3: "A trit that pads the last byte row MUST be 0."
    ["PACK-3", "the padding is not zero", bytes.findIndex(isWrong)],
  ].filter(([, , index]) => index >= 0);
}

// 4 Codebook and codes ------------------------------------------------------------------------------------------------

// CB-1: "A codebook MUST hold exactly 27 steps of binary32."
const STEPS = 27;
const CODEBOOK_SIZE = 4 * STEPS;
const [LEAST_STEP, LARGEST_STEP] = [0x00800000, 0x7f7fffff]; // bits of normal, finite numbers

function checkCodebook(codebook) {
  let before = 0;
  for (let c = 0; c < STEPS; c++) {
    const bits = viewOf(codebook).getUint32(4 * c, true);
    const fail = (clause) => new TritError(clause, `step ${c} has the bits 0x${bits.toString(16)}`);
    // CB-2: "Every step MUST be positive, normal and finite."
    if (bits < LEAST_STEP || bits > LARGEST_STEP) throw fail("CB-2");
    // CB-3: "The steps MUST be strictly increasing."
    if (bits <= before) throw fail("CB-3");
    // CB-4: "The low six bits of every step's significand MUST be zero."
    if (bits % 64 !== 0) throw fail("CB-4");
    before = bits;
  }
  return codebook;
}

const stepOf = (codebook, c) => viewOf(codebook).getFloat32(4 * c, true);

// CODE-1: "A code MUST lie in 0..26." It does: three trits make a level of depth 3, which is -13..13.
const CODE_PLANES = 3;
const CODE_OF_LEVEL_0 = largestLevel(CODE_PLANES);

// 5.1 Fields ----------------------------------------------------------------------------------------------------------

function checkShape(shape) {
  // SHAPE-2: "The product of a tensor's non-zero axes MUST be at most 2^48."
  const product = elementsOf(shape.map((axis) => axis || 1)); // rounded where it is above 2^53
  if (product > MAX_ELEMENTS) throw new TritError("SHAPE-2", `[${shape}] makes more than 2^48 elements`);
  return shape;
}

/** The rules of a trit entry that bind several fields. */
function checkTritTensor({ shape, depth, shift, dtype, codebook }) {
  // TEN-1: "A trit tensor MUST have a rank of at least 1 and no axis of 0."
  if (shape.length === 0 || shape.includes(0)) throw new TritError("TEN-1", `the shape is [${shape}]`);
  // CB-5: "The largest value, `step[26] * 3^shift * H`, rounded to the tensor's dtype, MUST be finite."
  const largest = stepOf(codebook, STEPS - 1) * 3 ** shift * largestLevel(depth); // 24 bits: exact in binary64
  if (roundTo(dtype, largest) === infinityOf(dtype)) throw new TritError("CB-5", `${largest} overflows ${dtype}`);
}

/** The matrix of a trit tensor: rows by K, in G groups a row. */
function matrixOf({ shape, group_size }) {
  const K = shape.at(-1);
  // Exact: the quotient is off by 2^-5 / group_size at most; its fraction is 0 or at least 1 / group_size.
  return { rows: elementsOf(shape.slice(0, -1)), K, G: Math.ceil(K / group_size) };
}

const elementsOf = (shape) => shape.reduce((product, axis) => product * axis, 1);

// 5.3 Values ----------------------------------------------------------------------------------------------------------

/** Bytes of a number, bits of its fraction, and the exponent of the least normal one. */
const FLOATS = {
  F32: { bytes: 4, fraction: 23, least: -126 },
  F16: { bytes: 2, fraction: 10, least: -14 },
  BF16: { bytes: 2, fraction: 7, least: -126 },
};

/** The bits of infinity. */
const infinityOf = (dtype) => (3 - 2 * FLOATS[dtype].least) * 2 ** FLOATS[dtype].fraction;

/** floor(log2(|x|)), from the bits of binary64; of 0, something below the exponents of all dtypes. */
function exponentOf(x) {
  const view = new DataView(new ArrayBuffer(8));
  view.setFloat64(0, x);
  return ((view.getUint16(0) >> 4) & 0x7ff) - 1023;
}

/** The bits in *dtype* of a value that is exact in binary64. */
function roundTo(dtype, value) {
  const { bytes, fraction, least } = FLOATS[dtype];
  const exponent = Math.max(exponentOf(value), least);
  const scaled = Math.abs(value) / 2 ** (exponent - fraction); // by a power of two: exact
  const whole = Math.floor(scaled);
  const rest = scaled - whole;
  // TEN-8: "A weight decoded to binary16 or bfloat16 MUST be the exact value rounded once, to nearest, ties to even."
  const up = rest > 0.5 || (rest === 0.5 && whole % 2 === 1) ? 1 : 0;
  const bits = (exponent - least) * 2 ** fraction + whole + up; // a carry raises the exponent, as it should
  return Math.min(bits, infinityOf(dtype)) + (value < 0 ? 2 ** (8 * bytes - 1) : 0);
}

/** The bits of all weights that a tensor may hold: of code c and level k at c * (2H + 1) + k + H. */
function valueTable({ codebook, depth, shift }, dtype) {
  const H = largestLevel(depth);
  const table = [];
  for (let c = 0; c < STEPS; c++) {
    // TEN-6: "A weight MUST decode to step[c] * 3^shift * k, exactly, in binary32."
    // TEN-7: "A weight of level 0 MUST decode to +0." It does: -1 + 1 is +0, and so is its product with a step.
    for (let k = -H; k <= H; k++) table.push(roundTo(dtype, stepOf(codebook, c) * 3 ** shift * k));
  }
  return table;
}

/** The bytes of weights in *dtype*, from their levels and the codes of their groups. */
function valuesOf(levels, codes, { depth, group_size }, table, dtype) {
  const H = largestLevel(depth);
  const { bytes } = FLOATS[dtype];
  const view = new DataView(new ArrayBuffer(bytes * levels.length));
  levels.forEach((k, j) => {
    const bits = table[codes[Math.floor(j / group_size)] * (2 * H + 1) + k + H];
    if (bytes === 4) view.setUint32(4 * j, bits, true);
    else view.setUint16(2 * j, bits, true);
  });
  return new Uint8Array(view.buffer);
}

// 5.4 Truncation, and decoding ----------------------------------------------------------------------------------------

/**
 * Decodes a trit tensor, row by row: `levels` (Int8Array), `codes` (Uint8Array, one a group) and `values` (the bytes of
 * the weights in *dtype*). Checks all the segments that it needs before it gives out anything.
 */
async function* decode(source, tensor, depth = tensor.depth, dtype = tensor.dtype) {
  checkDepth(depth);
  if (!Object.hasOwn(FLOATS, dtype)) throw new TritError("TEN-5", `no weights are decoded to ${dtype}`);
  // TEN-9: "The top d' planes of a tensor of depth d MUST be read as a tensor of depth d' whose shift is greater by
  // d - d'."
  const d = Math.min(depth, tensor.depth);
  const top = { ...tensor, depth: d, shift: tensor.shift + tensor.depth - d };
  const [codePlanes, levelPlanes] = planesOf(tensor, d);
  await checkSegments(source, [...codePlanes, ...levelPlanes]);
  const table = valueTable(top, dtype);
  const codeRows = readRows(source, codePlanes);
  for await (const levels of readRows(source, levelPlanes)) {
    const codes = Uint8Array.from((await codeRows.next()).value, (level) => level + CODE_OF_LEVEL_0);
    yield { levels, codes, values: valuesOf(levels, codes, top, table, dtype) };
  }
}

/** The planes of a tensor's codes and of its levels cut to *depth*, the least significant first. */
function planesOf({ segments }, depth) {
  return [segments.slice(0, CODE_PLANES), segments.slice(CODE_PLANES, CODE_PLANES + depth).reverse()];
}

/** Yields the rows of levels (Int8Array) that *planes* hold, the least significant of these first. */
async function* readRows(source, planes) {
  const { rows, columns } = planes[0];
  const most = ROWS_PER_BYTE * Math.max(1, Math.floor(CHUNK / columns)); // rows at a time
  for (let begin = 0; begin < rows; begin += most) {
    const end = Math.min(begin + most, rows);
    const blocks = [];
    for (const plane of planes) blocks.push(await readByteRows(source, plane, byteRowOf(begin), byteRows(end)));
    for (let row = begin; row < end; row++) {
      const start = byteRowOf(row - begin) * columns;
      yield joinRow(blocks.map((block) => block.subarray(start, start + columns)), row % ROWS_PER_BYTE);
    }
  }
}

async function readByteRows(source, { offset, columns }, begin, end) {
  const bytes = await readExactly(source, offset + BigInt(begin * columns), (end - begin) * columns);
  // READ-2: "A reader MUST NOT give out data that breaks PACK-2, PACK-3 or RAW-2." The file may have changed.
  if (bytes.some((byte) => byte > MAX_BYTE)) throw new TritError("PACK-2", "a byte is above 242");
  return bytes;
}

/** The levels of row *i* of a byte row of each plane. */
function joinRow(byteRows, i) {
  const levels = new Int8Array(byteRows[0].length);
  byteRows.forEach((bytes, p) => {
    for (let j = 0; j < levels.length; j++) levels[j] += TRIT_OF[i][bytes[j]] * 3 ** p;
  });
  return levels;
}

// 6.1 Preamble --------------------------------------------------------------------------------------------------------

const PREAMBLE_SIZE = 64;
const MAGIC = [0x89, 0x54, 0x52, 0x49, 0x54, 0x0d, 0x0a, 0x1a];
const MAJOR = 1;

/** Reads and checks the preamble, in the order of 6.1; PRE-8 is left to `readHeader`. */
async function readPreamble(source) {
  const check = (clause, byte, holds, message) => {
    if (!holds) throw new TritError(clause, message, { byte });
  };
  // PRE-1: "A file MUST be at least 64 bytes long."
  check("PRE-1", 0n, source.length >= PREAMBLE_SIZE, `the file has ${source.length} bytes, not 64`);
  const bytes = await readExactly(source, 0n, PREAMBLE_SIZE);
  const view = viewOf(bytes);
  // PRE-2: "The file MUST begin with the eight bytes of the magic."
  check("PRE-2", 0n, MAGIC.every((byte, i) => byte === bytes[i]), "this is no .trit file");
  // PRE-3: "The major version MUST be 1."
  const version = [view.getUint16(8, true), view.getUint16(10, true)];
  check("PRE-3", 8n, version[0] === MAJOR, `the major version is ${version[0]}`);
  // PRE-4: "The flags MUST be 0."
  const flags = view.getUint32(12, true);
  check("PRE-4", 12n, flags === 0, `the flags are 0x${flags.toString(16)}`);
  // PRE-5: "The header size MUST lie in 1..67108864."
  const size = view.getBigUint64(16, true);
  check("PRE-5", 16n, size >= 1 && size <= MAX_HEADER, `the header size is ${size}`);
  // PRE-6: "The file size MUST equal the length of the file."
  const length = view.getBigUint64(24, true);
  check("PRE-6", 24n, length === source.length, `the file size is ${length}, the file has ${source.length} bytes`);
  // PRE-7: "The header MUST end within the file."
  check("PRE-7", 16n, BigInt(PREAMBLE_SIZE) + size <= length, `the header of ${size} bytes is cut off`);
  return { version, headerSize: Number(size), identity: bytes.slice(32) };
}

// 6.2 Canonical MessagePack -------------------------------------------------------------------------------------------

/** By first byte, the forms that hold a value or length themselves: the type, and that value or length. */
const SHORT_FORMS = [["integer", 128], ["map", 16], ["array", 16], ["str", 32]].flatMap(([type, count]) =>
  Array.from({ length: count }, (_, value) => [type, value]));

/** By first byte, the others: the type, the bytes that the value or length takes, and the least that needs them. */
const LONG_FORMS = {
  0xcc: ["integer", 1, 2 ** 7], 0xcd: ["integer", 2, 2 ** 8], 0xce: ["integer", 4, 2 ** 16],
  0xcf: ["integer", 8, 2 ** 32],
  0xd9: ["str", 1, 32], 0xda: ["str", 2, 2 ** 8], 0xdb: ["str", 4, 2 ** 16],
  0xc4: ["bin", 1, 0], 0xc5: ["bin", 2, 2 ** 8], 0xc6: ["bin", 4, 2 ** 16],
  0xdc: ["array", 2, 16], 0xdd: ["array", 4, 2 ** 16],
  0xde: ["map", 2, 16], 0xdf: ["map", 4, 2 ** 16],
};

const bigEndian = (bytes) => bytes.reduce((value, byte) => 256 * value + byte, 0);

const [DECODER, ENCODER] = [new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }), new TextEncoder()];

function textOf(bytes) {
  try {
    return DECODER.decode(bytes);
  } catch {
    // MP-4: "Every str MUST be well-formed UTF-8."
    throw new TritError("MP-4", "a str is not UTF-8");
  }
}

/** Whether a stands before b in the order of their bytes. */
function precedes(a, b) {
  const i = a.findIndex((byte, i) => byte !== b[i]);
  return i < 0 ? a.length < b.length : a[i] < b[i]; // nothing is below undefined: then b is the beginning of a
}

/** Reads values one after the other; whoever reads says which type is next. */
class Cursor {
  constructor(bytes, minor) {
    // `start` is that of the value read last, `tensor` the one whose entry is read.
    Object.assign(this, { bytes, minor, position: 0, start: 0, tensor: null, ignored: new Set() });
  }

  take(size) {
    const left = this.bytes.length - this.position;
    // MP-5: "The header MUST be exactly one value, with nothing cut off and nothing after it."
    if (size > left) throw new TritError("MP-5", `${size} bytes are expected, ${left} are left`);
    this.position += size;
    return this.bytes.subarray(this.position - size, this.position);
  }

  /** The type of the next value, and the value of an integer or the length of anything else. */
  head() {
    this.start = this.position;
    const first = this.take(1)[0];
    if (first < SHORT_FORMS.length) return SHORT_FORMS[first];
    // MP-1: "Every value in the header MUST be an unsigned integer, a str, a bin, an array or a map."
    if (!(first in LONG_FORMS)) throw new TritError("MP-1", `a value begins with 0x${first.toString(16)}`);
    const [type, width, least] = LONG_FORMS[first];
    const value = bigEndian(this.take(width));
    // MP-2: "Every integer and every length MUST be in its shortest form."
    if (value < least) throw new TritError("MP-2", `${value} takes ${width} bytes`);
    return [type, value];
  }

  /** Reads the head of a value of *type*; a value or length outside *least*..*most* breaks *clause*. */
  expect(type, least = 0, most = Infinity, clause = null) {
    const [found, value] = this.head();
    // TYPE-1: "A value in the header MUST have the type that the tables of this chapter give it."
    if (found !== type) throw new TritError("TYPE-1", `${found} where ${type} is expected`);
    if (value < least || value > most) throw new TritError(clause, `${type}: ${value} is not in ${least}..${most}`);
    return value;
  }

  bin(size, clause) {
    return this.take(this.expect("bin", size, size, clause));
  }

  str(...limits) {
    return textOf(this.take(this.expect("str", ...limits)));
  }

  /** The keys of a map whose head has been read; the caller reads the value after each. */
  *keys(count, ...limits) {
    let before = null;
    for (let i = 0; i < count; i++) {
      const [type] = this.head();
      // MP-3: "The keys of a map MUST be str in strictly increasing order of their UTF-8 bytes."
      if (type !== "str") throw new TritError("MP-3", `a key is of type ${type}, not str`);
      this.position = this.start;
      const key = this.take(this.expect("str", ...limits));
      const text = textOf(key);
      if (before && !precedes(before, key)) throw new TritError("MP-3", `the key ${text} is out of order`);
      before = key;
      yield text;
    }
  }

  /** Passes over one value that has *nesting* arrays and maps around it. Each step takes a byte at least. */
  skip(nesting) {
    const [type, value] = this.head();
    // MP-6: "Arrays and maps MUST be nested at most 8 deep."
    const nests = type === "array" || type === "map";
    if (nests && nesting === MAX_NESTING) throw new TritError("MP-6", "an array or map is nested 9 deep");
    if (type === "bin") this.take(value);
    if (type === "str") textOf(this.take(value));
    if (type === "array") for (let i = 0; i < value; i++) this.skip(nesting + 1);
    if (type === "map") for (const _ of this.keys(value)) this.skip(nesting + 1);
  }

  /** Takes note of a key that is not known. */
  ignore(key) {
    // VER-1: "A key that is not in the table of the header, or of the entry's kind, MUST NOT stand there in a file of
    // minor version 0."
    if (this.minor === 0) throw new TritError("VER-1", `the key ${key} is unknown`);
    if (this.ignored.size < MAX_IGNORED) this.ignored.add(key);
  }
}

// 6.3 Header ----------------------------------------------------------------------------------------------------------

const HEADER_FIELDS = { metadata: readMetadata, tensors: readTensors, version: readVersion };
const HEADER_NESTING = 1; // arrays and maps around its values
const ENTRY_NESTING = 3;

/** Reads the preamble and the header, and places the segments. */
async function readHeader(source) {
  const { version, headerSize, identity } = await readPreamble(source);
  const bytes = await readExactly(source, BigInt(PREAMBLE_SIZE), headerSize);
  // PRE-8: "The SHA-256 of the header's bytes MUST equal the digest in the preamble."
  if (!equal(new Sha256().update(bytes).digest(), identity)) {
    throw new TritError("PRE-8", "the header's SHA-256 is not that in the preamble", { byte: 32n });
  }
  const cursor = new Cursor(bytes, version[1]);
  try {
    const { metadata, tensors } = readFields(cursor, version);
    const segments = placeSegments(tensors, headerSize, source.length);
    return { identity, version, headerSize, metadata, tensors, segments, ignored: [...cursor.ignored] };
  } catch (error) {
    error.tensor ??= cursor.tensor;
    error.byte ??= BigInt(PREAMBLE_SIZE + cursor.start);
    throw error;
  }
}

function readFields(cursor, version) {
  const fields = {};
  for (const key of cursor.keys(cursor.expect("map"))) {
    if (Object.hasOwn(HEADER_FIELDS, key)) {
      fields[key] = HEADER_FIELDS[key](cursor);
    } else {
      cursor.skip(HEADER_NESTING);
      cursor.ignore(key);
    }
  }
  // HDR-1: "The header MUST have the keys metadata, tensors and version."
  const missing = Object.keys(HEADER_FIELDS).find((key) => !(key in fields));
  if (missing) throw new TritError("HDR-1", `there is no key ${missing}`);
  const rest = cursor.bytes.length - cursor.position;
  if (rest > 0) {
    const byte = BigInt(PREAMBLE_SIZE + cursor.position);
    throw new TritError("MP-5", `there are ${rest} bytes after the header's map`, { byte });
  }
  // HDR-2: "The version in the header MUST equal the version in the preamble."
  if (!equal(fields.version, version)) throw new TritError("HDR-2", `[${fields.version}], not [${version}] as there`);
  return fields;
}

// NAME-1: "A name or a metadata key MUST be 1 to 512 bytes long."
const NAME_LIMITS = [1, MAX_NAME, "NAME-1"];
const CONTROL = /[\u0000-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u2069\ufeff]/u;

function checkName(name) {
  // NAME-2: "A name or a metadata key MUST NOT hold a control character."
  if (CONTROL.test(name)) throw new TritError("NAME-2", `${name} holds a control character`);
  return name;
}

function readMetadata(cursor) {
  const metadata = new Map();
  // HDR-5: "The metadata MUST hold at most 1024 pairs."
  for (const key of cursor.keys(cursor.expect("map", 0, MAX_METADATA, "HDR-5"), ...NAME_LIMITS)) {
    // HDR-6: "A metadata value MUST be at most 1048576 bytes long."
    metadata.set(checkName(key), cursor.str(0, MAX_METADATA_VALUE, "HDR-6"));
  }
  return metadata;
}

function readTensors(cursor) {
  // HDR-4: "The header MUST hold at most 1048576 entries."
  const count = cursor.expect("array", 0, MAX_TENSORS, "HDR-4");
  const tensors = [];
  let before = new Uint8Array(0);
  for (let i = 0; i < count; i++) {
    cursor.tensor = `number ${i}`;
    const tensor = readEntry(cursor);
    const name = ENCODER.encode(tensor.name);
    // HDR-3: "The entries MUST stand in strictly increasing order of the UTF-8 bytes of their names."
    if (!precedes(before, name)) throw new TritError("HDR-3", "the name is out of order");
    before = name;
    tensors.push(tensor);
  }
  cursor.tensor = null;
  return tensors;
}

function readVersion(cursor) {
  cursor.expect("array", 2, 2, "TYPE-1");
  return [cursor.expect("integer"), cursor.expect("integer")];
}

// 6.4 Entries ---------------------------------------------------------------------------------------------------------

const DIGEST_SIZE = 32;
const ELEMENT_BYTES = {
  BOOL: 1, U8: 1, I8: 1, F8_E4M3: 1, F8_E5M2: 1, F8_E8M0: 1,
  U16: 2, I16: 2, F16: 2, BF16: 2,
  U32: 4, I32: 4, F32: 4,
  U64: 8, I64: 8, F64: 8, C64: 8,
};

/** The next value, a str that has to be one of the keys of *table*. */
function choose(cursor, table, clause) {
  const text = cursor.str();
  if (!Object.hasOwn(table, text)) throw new TritError(clause, `it is ${text}`);
  return text;
}

/** The readers of an entry's values by key; they get the values before. The name, first, is for messages. */
const COMMON = {
  name: (cursor) => (cursor.tensor = checkName(cursor.str(...NAME_LIMITS))),
  // ENT-2: "The kind of an entry MUST be trit or raw."
  kind: (cursor) => choose(cursor, KINDS, "ENT-2"),
  shape: readShape,
};
const KINDS = {
  raw: {
    ...COMMON,
    // RAW-1: "The dtype of a raw tensor MUST be one of the table."
    dtype: (cursor) => choose(cursor, ELEMENT_BYTES, "RAW-1"),
    sha256: (cursor) => [cursor.bin(DIGEST_SIZE, "ENT-3")],
  },
  trit: {
    ...COMMON,
    codebook: (cursor) => checkCodebook(cursor.bin(CODEBOOK_SIZE, "CB-1")),
    // TEN-2: "The depth of a trit tensor MUST be 1, 2, 3 or 4."
    depth: (cursor) => cursor.expect("integer", 1, MAX_DEPTH, "TEN-2"),
    // TEN-3: "The sum of depth and shift MUST be at most 4."
    shift: (cursor, { depth }) => cursor.expect("integer", 0, MAX_DEPTH - depth, "TEN-3"),
    // TEN-4: "The group size MUST lie in 1..65536."
    group_size: (cursor) => cursor.expect("integer", 1, MAX_GROUP_SIZE, "TEN-4"),
    // TEN-5: "The dtype of a trit tensor MUST be F32, F16 or BF16."
    dtype: (cursor) => choose(cursor, FLOATS, "TEN-5"),
    sha256: readDigests,
  },
};

/** Reads an entry twice: which keys it has, and of what kind it is; then its values. */
function readEntry(cursor) {
  const places = {};
  for (const key of cursor.keys(cursor.expect("map"))) {
    if (Object.hasOwn(KINDS.trit, key)) places[key] = cursor.position;
    else cursor.ignore(key);
    cursor.skip(ENTRY_NESTING);
  }
  const end = cursor.position;
  const find = (key) => {
    // ENT-1: "An entry MUST have every key of its kind."
    if (!Object.hasOwn(places, key)) throw new TritError("ENT-1", `there is no key ${key}`);
    cursor.position = places[key];
  };
  find("kind");
  const readers = KINDS[choose(cursor, KINDS, "ENT-2")];
  Object.keys(readers).forEach(find);
  for (const key of Object.keys(places)) if (!(key in readers)) cursor.ignore(key);
  const tensor = {};
  for (const [key, read] of Object.entries(readers)) {
    find(key);
    tensor[key] = read(cursor, tensor);
  }
  cursor.position = end;
  if (tensor.kind === "trit") checkTritTensor(tensor);
  return Object.assign(tensor, { segments: segmentsOf(tensor) });
}

function readShape(cursor) {
  // SHAPE-1: "The rank of a tensor MUST be at most 8."
  const rank = cursor.expect("array", 0, MAX_RANK, "SHAPE-1");
  return checkShape(Array.from({ length: rank }, () => cursor.expect("integer")));
}

function readDigests(cursor, { depth }) {
  // ENT-3: "An entry MUST hold one digest of 32 bytes for each of its segments."
  const count = cursor.expect("array", CODE_PLANES + depth, CODE_PLANES + depth, "ENT-3");
  return Array.from({ length: count }, () => cursor.bin(DIGEST_SIZE, "ENT-3"));
}

// 7 Layout ------------------------------------------------------------------------------------------------------------

const ALIGNMENT = 64n;
const align = (x) => ((x + ALIGNMENT - 1n) / ALIGNMENT) * ALIGNMENT;

/** The segments of a tensor, in the order of its digests; those of planes have rows and columns. */
function segmentsOf(tensor) {
  if (tensor.kind === "raw") {
    const size = elementsOf(tensor.shape) * ELEMENT_BYTES[tensor.dtype];
    return [{ tensor, digest: tensor.sha256[0], size }];
  }
  const { rows, K, G } = matrixOf(tensor);
  return tensor.sha256.map((digest, plane) => {
    const columns = plane < CODE_PLANES ? G : K;
    return { tensor, digest, size: byteRows(rows) * columns, rows, columns };
  });
}

// LAY-1: "The segments MUST stand in this order: the raw tensors, in directory order; the three code planes of every
// trit tensor, tensor by tensor; then the most significant weight plane of every trit tensor, then the next plane of
// every tensor that has one, and so on."
function segmentsInOrder(tensors) {
  const of = (kind, begin, end) =>
    tensors.flatMap((tensor) => (tensor.kind === kind ? tensor.segments.slice(begin, end) : []));
  const ranks = Array.from({ length: MAX_DEPTH }, (_, rank) => CODE_PLANES + rank);
  return [of("raw"), of("trit", 0, CODE_PLANES), ...ranks.map((plane) => of("trit", plane, plane + 1))].flat();
}

/** Gives each segment of *tensors* its offset; returns them in the order of the file, which has *length* bytes. */
function placeSegments(tensors, headerSize, length) {
  const segments = segmentsInOrder(tensors);
  // LAY-2: "The first segment MUST begin at align(64 + header size), and each other one at align(end of the one
  // before)."
  let end = align(BigInt(PREAMBLE_SIZE + headerSize));
  for (const segment of segments) {
    segment.offset = end;
    end = align(end + BigInt(segment.size));
    // LAY-5: "The end of the file MUST be at most 2^63 - 1."
    const where = { tensor: segment.tensor.name, byte: segment.offset };
    if (end > MAX_FILE) throw new TritError("LAY-5", "a segment ends beyond 2^63 - 1", where);
  }
  // LAY-4: "The file MUST end at align(end of the last segment), or at align(64 + header size) where there are no
  // segments."
  if (end !== length) {
    throw new TritError("LAY-4", `the file has ${length} bytes, its segments end at ${end}`, { byte: length });
  }
  return segments;
}

// 8 Reading -----------------------------------------------------------------------------------------------------------

/** Reads *size* bytes, which by `source.length` are there. */
async function readExactly(source, offset, size) {
  const bytes = await source.read(offset, size);
  // READ-4: "A reader MUST report as an error a file that ends before what its header promises."
  if (bytes.length < size) throw new TritError("READ-4", "the file ended while it was read", { byte: offset });
  return bytes;
}

/** Yields the defects of a segment, each requirement once. */
async function* segmentDefects(source, segment) {
  const { tensor, offset, size } = segment;
  const fail = (clause, message, index) =>
    new TritError(clause, message, { tensor: tensor.name, byte: offset + BigInt(index) });
  const hash = new Sha256();
  const found = new Set();
  for (let start = 0; start < size; start += CHUNK) {
    const bytes = await readExactly(source, offset + BigInt(start), Math.min(CHUNK, size - start));
    hash.update(bytes);
    for (const [clause, message, index] of contentDefects(segment, bytes, start)) {
      if (!found.has(clause)) yield fail(clause, message, start + index);
      found.add(clause);
    }
  }
  // SEG-1: "The SHA-256 of each segment MUST equal its digest in the directory."
  if (!equal(hash.digest(), segment.digest)) yield fail("SEG-1", "the segment's SHA-256 is not its digest", 0);
}

/** What is wrong with the *bytes* of a segment that begin at its byte *start*, as `packingDefects` gives it. */
function contentDefects({ tensor, rows, columns }, bytes, start) {
  if (tensor.kind === "trit") return packingDefects(bytes, start, rows, columns);
  // RAW-2: "Every byte of a raw tensor of dtype BOOL MUST be 0 or 1."
  const index = tensor.dtype === "BOOL" ? bytes.findIndex((byte) => byte > 1) : -1;
  return index < 0 ? [] : [["RAW-2", "a BOOL is neither 0 nor 1", index]];
}

/** Throws the first defect of *segments*. */
async function checkSegments(source, segments) {
  for (const segment of segments) {
    // READ-3: "A reader that has read a whole segment MUST compare its digest, unless its caller has asked it not to."
    for await (const defect of segmentDefects(source, segment)) throw defect;
  }
}

// 9 Verification ------------------------------------------------------------------------------------------------------

/** Yields the defects of segments and gaps, in the order of the file. */
async function* dataDefects(source, { headerSize, segments }) {
  let end = BigInt(PREAMBLE_SIZE + headerSize);
  for (const segment of segments) {
    yield* gapDefects(source, end, segment.offset);
    yield* segmentDefects(source, segment);
    end = segment.offset + BigInt(segment.size);
  }
  yield* gapDefects(source, end, source.length);
}

async function* gapDefects(source, begin, end) {
  const bytes = await readExactly(source, begin, Number(end - begin)); // at most 63: what align adds
  // LAY-3: "Every byte that belongs to neither preamble, header nor segment MUST be zero."
  const i = bytes.findIndex((byte) => byte !== 0);
  if (i >= 0) yield new TritError("LAY-3", `a byte between segments is ${bytes[i]}`, { byte: begin + BigInt(i) });
}

const UNSUPPORTED = ["PRE-3", "PRE-4"];

/** The verdict on a file with a first *defect*, or with none. */
function verdictOf(defect) {
  if (!defect) return "valid";
  return UNSUPPORTED.includes(defect.clause) ? "unsupported" : "invalid";
}

/** A file's verdict, with the first defect. Throws READ-4, and what the source throws. */
async function verify(source) {
  try {
    const header = await readHeader(source);
    for await (const defect of dataDefects(source, header)) throw defect;
    return { verdict: verdictOf(null), clause: null, defect: null, ignored: header.ignored };
  } catch (defect) {
    if (!(defect instanceof TritError) || defect.clause === "READ-4") throw defect;
    return { verdict: verdictOf(defect), clause: defect.clause, defect, ignored: [] };
  }
}

globalThis.trit = {
  TritError, split, join, pack, unpack, elementsOf, matrixOf, roundTo, decode, planesOf, readRows, readHeader,
  checkSegments, dataDefects, verdictOf, verify,
};
