// The protocol of docs/protocol.md over trit.js: `node main.js verify FILE` and `node main.js serve`.

import { createHash } from "node:crypto";
import { closeSync, constants, fstatSync, openSync, readSync } from "node:fs";
import "./sha256.js";
import "./trit.js";

const { TritError, split, join, pack, unpack, readHeader, decode, checkSegments, verify } = globalThis.trit;

const STATUS = { valid: 0, invalid: 1, unsupported: 3 };
const CANNOT_READ = 2;
const CRASH = 70;
const NEWLINE = 0x0a;

/** A request that cannot be answered, with the reason. */
class Skip extends Error {}

// Files ---------------------------------------------------------------------------------------------------------------

async function withFile(path, use) {
  if (typeof path !== "string" || path.includes("\0")) throw new Skip("the request names no file");
  const file = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK); // does not wait for a FIFO's writer
  try {
    const stat = fstatSync(file, { bigint: true });
    if (!stat.isFile()) throw Object.assign(new Error("not a regular file"), { syscall: "open" });
    return await use({ length: stat.size, read: (offset, size) => readAt(file, offset, size) });
  } finally {
    closeSync(file);
  }
}

/** The *size* bytes at *offset* (BigInt), or as many as there are. */
function readAt(file, offset, size) {
  const bytes = new Uint8Array(size);
  let filled = 0;
  for (let read = 1; read > 0 && filled < size; filled += read) {
    read = readSync(file, bytes, filled, size - filled, offset + BigInt(filled));
  }
  return bytes.subarray(0, filled);
}

/** Whether *error* is the fault of the file system, or of a file that ended while it was read. */
const isUnreadable = (error) => error.syscall !== undefined || error.clause === "READ-4";

// Level 1: a verdict --------------------------------------------------------------------------------------------------

async function verifyFile(path) {
  const { verdict, clause, defect, ignored } = await withFile(path, verify);
  if (defect) {
    const tensor = defect.tensor ? `, tensor ${defect.tensor}` : "";
    report(`${clause}${tensor}, byte ${defect.byte}: ${defect.message}`);
  }
  for (const key of ignored) report(`ignored: ${key}`);
  console.log(toJson({ verdict, clause }));
  return STATUS[verdict];
}

/** Prints a line that may hold text from a file: short, and without anything that acts on a terminal. */
function report(line) {
  console.error(line.slice(0, 400).replace(/[^ -~]/gu, (character) => `\\u{${character.codePointAt(0).toString(16)}}`));
}

// Level 2: requests ---------------------------------------------------------------------------------------------------

const COMMANDS = {
  verify: ({ file }) => withFile(file, verify).then(({ verdict, clause }) => ({ verdict, clause })),
  header: ({ file }) => withFile(file, answerHeader),
  decode: ({ file, ...request }) => withFile(file, (source) => answerDecode(source, request)),
  pack: ({ rows, columns, trits }) => ({ packed: toHex(pack(int8(trits), sizeOf(rows), sizeOf(columns))) }),
  unpack: ({ rows, columns, packed }) => ({ trits: toHex(unpack(fromHex(packed), sizeOf(rows), sizeOf(columns))) }),
  split: ({ depth, levels }) => ({ planes: split(int8(levels), depth).map(toHex) }),
  join: ({ planes }) => ({ levels: toHex(join(equalPlanes(planes))) }),
};

async function answerHeader(source) {
  const { identity, version, metadata, tensors } = await readHeader(source);
  const described = tensors.map(({ name, kind, dtype, shape, depth, shift, group_size, codebook, segments }) => ({
    ...{ name, kind, dtype, shape, offsets: segments.map(({ offset }) => offset) },
    ...(kind === "trit" && { depth, shift, group_size, codebook: toHex(codebook) }),
  }));
  return { identity: toHex(identity), version, metadata: Object.fromEntries(metadata), tensors: described };
}

async function answerDecode(source, { tensor: name, depth, dtype }) {
  const { tensors } = await readHeader(source);
  const tensor = tensors.find((each) => each.name === name);
  if (!tensor) throw new Skip("there is no such tensor");
  const { shape } = tensor;
  if (tensor.kind === "raw") {
    await checkSegments(source, tensor.segments);
    return { shape, values: toHex(tensor.sha256[0]) }; // which the bytes have just been compared with
  }
  const [levels, codes, values] = Array.from({ length: 3 }, () => createHash("sha256"));
  for await (const piece of decode(source, tensor, depth ?? tensor.depth, dtype)) {
    levels.update(piece.levels);
    codes.update(piece.codes);
    values.update(piece.values);
  }
  return { shape, levels: levels.digest("hex"), codes: codes.digest("hex"), values: values.digest("hex") };
}

/** The answer to one line. */
async function answer(line) {
  let seq = null;
  try {
    const request = JSON.parse(line);
    seq = request?.seq ?? null;
    if (!Object.hasOwn(COMMANDS, request?.cmd)) throw new Skip("there is no such command");
    return { seq, result: await COMMANDS[request.cmd](request) };
  } catch (error) {
    if (error instanceof Skip || error instanceof SyntaxError) return { seq, skipped: error.message };
    if (isUnreadable(error)) return { seq, skipped: `the file cannot be read: ${error.message}` };
    if (error instanceof TritError) return { seq, result: { error: error.clause } };
    throw error;
  }
}

async function serve() {
  for await (const line of lines(process.stdin)) console.log(toJson(await answer(line)));
  return 0;
}

/** The lines of a stream, as bytes. (node:readline splits at U+2028, too, which JSON may hold.) */
async function* lines(stream) {
  let rest = Buffer.alloc(0);
  for await (const chunk of stream) {
    rest = Buffer.concat([rest, chunk]);
    for (let end; (end = rest.indexOf(NEWLINE)) >= 0; rest = rest.subarray(end + 1)) yield rest.subarray(0, end);
  }
  if (rest.length > 0) yield rest;
}

// JSON and hexadecimal ------------------------------------------------------------------------------------------------

/** JSON of what answers are made of; JSON.stringify refuses a BigInt. */
function toJson(value) {
  if (typeof value === "bigint") return value.toString();
  if (Array.isArray(value)) return `[${value.map(toJson).join(", ")}]`;
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  return `{${Object.entries(value).map(([key, each]) => `${JSON.stringify(key)}: ${toJson(each)}`).join(", ")}}`;
}

const toHex = (array) => Buffer.from(array).toString("hex"); // negative numbers modulo 256

function fromHex(text) {
  if (typeof text !== "string" || !/^([0-9a-f]{2})*$/.test(text)) throw new Skip("an array is no hexadecimal");
  return Uint8Array.from(Buffer.from(text, "hex"));
}

const int8 = (text) => Int8Array.from(fromHex(text));

function sizeOf(value) {
  if (!Number.isInteger(value) || value < 0 || value > 2 ** 48) throw new Skip("rows or columns is no size");
  return value;
}

function equalPlanes(planes) {
  if (!Array.isArray(planes)) throw new Skip("planes is no list");
  const arrays = planes.map(int8);
  if (arrays.some(({ length }) => length !== arrays[0].length)) throw new Skip("the planes differ in size");
  return arrays;
}

// ---------------------------------------------------------------------------------------------------------------------

async function main([command, ...operands]) {
  if (command === "verify" && operands.length === 1) return verifyFile(operands[0]);
  if (command === "serve" && operands.length === 0) return serve();
  console.error("usage: node main.js verify FILE | node main.js serve");
  return CANNOT_READ;
}

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  console.error(isUnreadable(error) ? `the file cannot be read: ${error.message}` : error);
  process.exitCode = isUnreadable(error) ? CANNOT_READ : CRASH;
}
