// The protocol of docs/protocol.md over trit.js: `node main.js verify FILE` and `node main.js serve`.

import { closeSync, constants, fstatSync, openSync, readSync } from "node:fs";
import "./trit.js";

const {
  TritError, Sha256, toHex, quote, split, join, pack, unpack, readHeader, decode, checkSegments, verify,
} = globalThis.trit;

const STATUS = { valid: 0, invalid: 1, unsupported: 3 };
const CANNOT_READ = 2;
const CRASH = 70;
const MAX_REQUEST = 2 ** 20;
const NEWLINE = 0x0a;

/** A request that cannot be answered, with the reason. */
class Skip extends Error {}

// Files ----------------------------------------------------------------------------------------------------------

/** Calls *use* with the source of a regular file, which is closed afterwards. */
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
  while (filled < size) {
    const read = readSync(file, bytes, filled, size - filled, offset + BigInt(filled));
    if (read === 0) break;
    filled += read;
  }
  return bytes.subarray(0, filled);
}

/** Whether *error* is the fault of the file system, or of a file that ended while it was read. */
const isUnreadable = (error) => error.syscall !== undefined || error.clause === "READ-4";

// Level 1: a verdict ---------------------------------------------------------------------------------------------

async function verifyFile(path) {
  const { verdict, clause, defect, ignored } = await withFile(path, verify);
  if (defect) {
    const tensor = defect.tensor === null ? "" : `, tensor ${quote(defect.tensor)}`;
    const byte = defect.byte === null ? "" : `, byte ${defect.byte}`;
    console.error(`${defect.clause}${tensor}${byte}: ${defect.message}`);
  }
  for (const key of ignored) console.error(`ignored: ${quote(key)}`);
  console.log(toJson({ verdict, clause }));
  return STATUS[verdict];
}

// Level 2: requests ----------------------------------------------------------------------------------------------

const COMMANDS = {
  verify: ({ file }) => withFile(file, verify).then(({ verdict, clause }) => ({ verdict, clause })),
  header: ({ file }) => withFile(file, answerHeader),
  decode: (request) => withFile(request.file, (source) => answerDecode(source, request)),
  pack: ({ rows, columns, trits }) => ({ packed: toHex(pack(int8(trits), size(rows), size(columns))) }),
  unpack: ({ rows, columns, packed }) => ({ trits: hexOf(unpack(fromHex(packed), size(rows), size(columns))) }),
  split: ({ depth, levels }) => ({ planes: split(int8(levels), depthOf(depth)).map(hexOf) }),
  join: ({ planes }) => ({ levels: hexOf(join(equalPlanes(planes))) }),
};

async function answerHeader(source) {
  const { identity, version, metadata, tensors, segments } = await readHeader(source);
  const offsets = new Map(tensors.map((tensor) => [tensor, []]));
  for (const { tensor, offset } of segments) offsets.get(tensor).push(offset);
  return {
    identity: toHex(identity),
    version,
    metadata: Object.fromEntries(metadata),
    tensors: tensors.map((tensor) => describe(tensor, offsets.get(tensor))),
  };
}

function describe({ name, kind, dtype, shape, depth, shift, group_size, codebook }, offsets) {
  const common = { name, kind, dtype, shape, offsets };
  return kind === "raw" ? common : { ...common, depth, shift, group_size, codebook: toHex(codebook) };
}

async function answerDecode(source, { tensor: name, depth, dtype }) {
  const header = await readHeader(source);
  const tensor = header.tensors.find((each) => each.name === name);
  if (!tensor) throw new Skip("there is no such tensor");
  const segments = header.segments.filter((segment) => segment.tensor === tensor);
  if (tensor.kind === "raw") {
    await checkSegments(source, segments);
    return { shape: tensor.shape, values: toHex(tensor.sha256) }; // which the bytes have just been compared with
  }
  if (!["F32", "F16", "BF16"].includes(dtype)) throw new TritError("TEN-5", "dtype");
  const options = { depth: depth === null ? tensor.depth : Math.min(depthOf(depth), tensor.depth), dtype };
  const hashes = { levels: new Sha256(), codes: new Sha256(), values: new Sha256() };
  for await (const piece of decode(source, tensor, segments, options)) {
    for (const [key, hash] of Object.entries(hashes)) hash.update(asBytes(piece[key]));
  }
  const digests = Object.entries(hashes).map(([key, hash]) => [key, toHex(hash.digest())]);
  return { shape: tensor.shape, ...Object.fromEntries(digests) };
}

/** The answer to one line. */
async function answer(line) {
  let seq = null;
  try {
    const request = parse(line);
    seq = request.seq ?? null;
    if (!Object.hasOwn(COMMANDS, request.cmd)) throw new Skip(`no ${quote(String(request.cmd))}`);
    return { seq, result: await COMMANDS[request.cmd](request) };
  } catch (error) {
    if (error instanceof Skip) return { seq, skipped: error.message };
    if (isUnreadable(error)) return { seq, skipped: `the file cannot be read: ${error.message}` };
    if (error instanceof TritError) return { seq, result: { error: error.clause } };
    throw error;
  }
}

async function serve() {
  for await (const line of lines(process.stdin)) console.log(toJson(await answer(line)));
  return 0;
}

/** Lines as bytes, null for one above MAX_REQUEST. (node:readline splits at U+2028 too, which JSON may hold.) */
async function* lines(stream) {
  let [parts, size] = [[], 0];
  const keep = (part) => {
    size += part.length;
    if (size <= MAX_REQUEST) parts.push(part);
  };
  const flush = () => {
    const line = size <= MAX_REQUEST ? Buffer.concat(parts) : null;
    [parts, size] = [[], 0];
    return line;
  };
  for await (const chunk of stream) {
    let start = 0;
    for (let end = chunk.indexOf(NEWLINE); end >= 0; end = chunk.indexOf(NEWLINE, start)) {
      keep(chunk.subarray(start, end));
      yield flush();
      start = end + 1;
    }
    keep(chunk.subarray(start));
  }
  if (size > 0) yield flush();
}

// JSON and hexadecimal -------------------------------------------------------------------------------------------

function parse(line) {
  if (line === null) throw new Skip(`the request is longer than ${MAX_REQUEST} bytes`);
  try {
    const request = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(line));
    if (request !== null && typeof request === "object") return request;
  } catch {
    // As below.
  }
  throw new Skip("the request is no JSON object");
}

/** JSON of what has been made of the types below; JSON.stringify refuses a BigInt. */
function toJson(value) {
  if (typeof value === "bigint") return value.toString();
  if (Array.isArray(value)) return `[${value.map(toJson).join(", ")}]`;
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  return `{${Object.entries(value).map(([key, each]) => `${JSON.stringify(key)}: ${toJson(each)}`).join(", ")}}`;
}

function fromHex(text) {
  if (typeof text !== "string" || !/^([0-9a-f]{2})*$/.test(text)) throw new Skip("an array is no hexadecimal");
  return Uint8Array.from(Buffer.from(text, "hex"));
}

const int8 = (text) => new Int8Array(fromHex(text).buffer);
const asBytes = (array) => new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
const hexOf = (array) => toHex(asBytes(array));

function size(value) {
  if (!Number.isInteger(value) || value < 0 || value > 2 ** 48) throw new Skip("rows or columns is no size");
  return value;
}

function depthOf(value) {
  if (![1, 2, 3, 4].includes(value)) throw new TritError("TEN-2", "depth");
  return value;
}

function equalPlanes(planes) {
  if (!Array.isArray(planes)) throw new Skip("planes is no list");
  depthOf(planes.length);
  const arrays = planes.map(int8);
  if (arrays.some((plane) => plane.length !== arrays[0].length)) throw new Skip("the planes differ in size");
  return arrays;
}

// ----------------------------------------------------------------------------------------------------------------

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
