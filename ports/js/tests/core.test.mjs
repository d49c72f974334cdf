// What tools/conform.py, which runs trit.js over the fixtures, cannot see: `node --test tests/`.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import "../sha256.js";
import "../trit.js";

const { trit, Sha256 } = globalThis;
const ROOT = new URL("../../../", import.meta.url);
const REAL = new URL("fixtures/valid/real/", ROOT);
const MAIN = fileURLToPath(new URL("../main.js", import.meta.url));
const SPEC = readFileSync(new URL("SPEC.md", ROOT), "utf8").replace(/\s+/g, " ");
const CODE = readFileSync(new URL("../trit.js", import.meta.url), "utf8").replace(/\n\s*\/\/ ?/g, " ");
const QUOTED = [...CODE.matchAll(/([A-Z]+-\d+): "([^"]*)"/g)];

const load = (file) => new Uint8Array(readFileSync(new URL(file, REAL)));
const sourceOf = (bytes, length = bytes.length) => ({
  length: BigInt(length),
  read: (offset, size) => bytes.slice(Number(offset), Number(offset) + size),
});
const floatOf = (bits) => new DataView(Uint32Array.of(bits).buffer).getFloat32(0, true);

test("every quoted sentence stands in SPEC.md under its id", () => {
  for (const [, id, sentence] of QUOTED) assert.ok(SPEC.includes(`**${id}.** ${sentence}`), `${id}: ${sentence}`);
});

test("every requirement on files and readers is quoted", () => {
  const all = [...SPEC.matchAll(/\*\*([A-Z]+-\d+)\.\*\*/g)].map(([, id]) => id);
  const ids = all.filter((id) => !/^(MM|XL|IDX)-/.test(id)); // products, layouts and folders: not this port's
  const quoted = new Set(QUOTED.map(([, id]) => id));
  const elsewhere = ["TEN-10", "READ-1", "WRITE-1", "WRITE-2", "WRITE-3", "VERIFY-1", "VERIFY-2"]; // no one line's
  assert.deepEqual(ids.filter((id) => !quoted.has(id)), elsewhere);
});

test("a file that ends or fails while it is read has no verdict", async () => {
  const bytes = load("nested-depth-2.trit");
  for (let size = 0; size < bytes.length; size += 7) {
    await assert.rejects(trit.verify(sourceOf(bytes.slice(0, size), bytes.length)), { clause: "READ-4" });
  }
  const failing = { length: 960n, read: () => Promise.reject(new Error("gone")) };
  await assert.rejects(trit.verify(failing), /gone/);
});

test("what changes between its check and its use is not given out", async () => {
  const bytes = load("optimal-depth-2.trit");
  const { tensors } = await trit.readHeader(sourceOf(bytes));
  const { offset } = tensors[0].segments[3];
  let reads = 0;
  const source = { length: BigInt(bytes.length), read(at, size) {
    const read = bytes.slice(Number(at), Number(at) + size);
    if (at === offset && ++reads === 2) read[0] = 250;
    return read;
  } };
  await assert.rejects(async () => { for await (const _ of trit.decode(source, tensors[0])); }, { clause: "PACK-2" });
});

test("segments beyond a MiB are read in pieces, none of which goes beyond the file", async () => {
  const [rows, columns] = [12, 2 ** 19 + 7]; // 3 byte rows; in the last one, 3 rows of padding
  const bytes = Uint8Array.from({ length: 64 + 3 * columns }, (_, i) => (i < 64 ? 0 : 117 + (i % 9))); // padded right
  const { length, read } = sourceOf(bytes);
  const source = { length, read(offset, size) {
    assert.ok(offset + BigInt(size) <= length && size <= 2 ** 20);
    return read(offset, size);
  } };
  const digest = createHash("sha256").update(bytes.subarray(64)).digest();
  const segment = { tensor: { name: "w", kind: "trit" }, rows, columns, digest, offset: 64n, size: 3 * columns };
  let row = 0;
  for await (const levels of trit.readRows(source, [segment])) {
    const [start, digit] = [64 + Math.floor(row / 5) * columns, 3 ** (row % 5)];
    assert.ok(levels.every((level, j) => level === (Math.floor(bytes[start + j] / digit) % 3) - 1), `row ${row}`);
    row += 1;
  }
  assert.equal(row, rows);
  const defects = async () => {
    const found = [];
    const header = { headerSize: 0, segments: [segment] };
    for await (const { clause, byte } of trit.dataDefects(source, header)) found.push([clause, byte]);
    return found;
  };
  assert.deepEqual(await defects(), []);
  bytes[64 + 2 ** 20 + 3] = 243;
  bytes[bytes.length - 1] = 0;
  assert.deepEqual(await defects(), [["PACK-2", 64n + 2n ** 20n + 3n], ["PACK-3", length - 1n], ["SEG-1", 64n]]);
});

test("a length beyond 2^53 is not rounded", async () => {
  const bytes = load("optimal-depth-1.trit");
  const claim = (length) => new DataView(bytes.buffer).setBigUint64(24, length, true);
  const length = 2n ** 53n + 1n;
  claim(length);
  assert.equal((await trit.verify(sourceOf(bytes, length))).clause, "LAY-4");
  claim(length - 1n);
  assert.equal((await trit.verify(sourceOf(bytes, length))).clause, "PRE-6");
});

test("each number of binary16 and bfloat16, and each middle of two, is rounded to nearest, ties to even", () => {
  const half = (h) => (h >> 10 ? (1024 + (h & 1023)) * 2 ** ((h >> 10) - 25) : h * 2 ** -24);
  const brain = (b) => floatOf(b << 16);
  for (const [dtype, value, infinity] of [["F16", half, 0x7c00], ["BF16", brain, 0x7f80]]) {
    for (let h = 0; h < infinity; h++) {
      const low = value(h);
      const middle = h + 1 < infinity ? (low + value(h + 1)) / 2 : low + (low - value(h - 1)) / 2;
      const even = h + (h % 2);
      const right = trit.roundTo(dtype, low) === h && trit.roundTo(dtype, middle) === even &&
        trit.roundTo(dtype, -middle) === 0x8000 + even && trit.roundTo(dtype, middle * (1 - 2 ** -50)) === h &&
        trit.roundTo(dtype, middle * (1 + 2 ** -50)) === h + 1;
      assert.ok(right, `${dtype}, at and above 0x${h.toString(16)}`);
    }
  }
  for (const bits of [0, 0x00800000, 0x3f800001, 0x7f7fffff, 0xff7fffff]) {
    assert.equal(trit.roundTo("F32", floatOf(bits)), bits);
  }
  const overflow = ["F32", "F16", "BF16"].map((dtype) => trit.roundTo(dtype, -(2 ** 130)));
  assert.deepEqual(overflow, [0xff800000, 0xfc00, 0xff80]);
});

test("SHA-256 is that of node:crypto, however the bytes are cut", () => {
  const data = Uint8Array.from({ length: 300 }, (_, i) => i * i);
  for (let size = 0; size <= data.length; size++) {
    const bytes = data.subarray(0, size);
    const expected = createHash("sha256").update(bytes).digest();
    for (const cut of [0, 1, 55, 63, 64, 65, size]) {
      const ours = new Sha256().update(bytes.subarray(0, cut)).update(bytes.subarray(cut)).digest();
      assert.ok(expected.equals(ours), `${size} bytes cut at ${cut}`);
    }
  }
});

test("SHA-256 counts more than 2^32 bits", () => {
  const digestAfter = (length) => Object.assign(new Sha256(), { length }).digest().join();
  assert.equal(new Set([0, 2 ** 29, 2 ** 32, 2 ** 50].map(digestAfter)).size, 4); // modulo 2^32, all would be one
});

test("the program in README.md runs", async () => {
  const [, program] = readFileSync(new URL("../README.md", import.meta.url), "utf8").match(/```js\n([^]*?)```/);
  const AsyncFunction = (async () => {}).constructor;
  const body = `${program.replace(/^import .*/gm, "")}; return [verdict, clause, defect, tensors[0].name]`;
  const run = new AsyncFunction("bytes", body);
  const found = await run(load("nested-depth-2.trit"));
  assert.deepEqual(found, ["valid", null, null, "encoder.layer.0.output.dense.weight"]);
});

test("wrong usage ends with 2, and what a file says is escaped before a terminal sees it", () => {
  const file = fileURLToPath(new URL("fixtures/invalid/names/a-name-with-u-202e.trit", ROOT));
  const run = (...operands) => spawnSync(process.execPath, [MAIN, ...operands], { encoding: "utf8" });
  for (const operands of [[], ["verify", file, file]]) assert.equal(run(...operands).status, 2);
  assert.match(run("verify", file).stderr, /^NAME-2, [ -~]*\\u{202e}[ -~]*\n$/);
});
