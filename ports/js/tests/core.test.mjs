// The self-test of trit.js and main.js: `node --test tests/`. Python 3 makes the files.

import assert from "node:assert/strict";
import { execFileSync, spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join as path } from "node:path";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";
import "../trit.js";

const { trit } = globalThis;
const HERE = fileURLToPath(new URL(".", import.meta.url));
const MAIN = path(HERE, "../main.js");
const SPEC = path(HERE, "../../../SPEC.md");
const FOLDER = mkdtempSync(path(tmpdir(), "trit-js-"));
after(() => rmSync(FOLDER, { recursive: true }));
execFileSync("python3", [path(HERE, "make_files.py"), FOLDER]);
const { cases, decode } = JSON.parse(readFileSync(path(FOLDER, "manifest.json")));

const load = (file) => new Uint8Array(readFileSync(path(FOLDER, file)));
const sourceOf = (bytes) => ({
  length: bytes.length,
  read: (offset, size) => bytes.slice(Number(offset), Number(offset) + size),
});
const verdict = async (bytes) => trit.verify(sourceOf(bytes));

/** Asks a server each request, and gives its answers; *raw* is sent as it is. */
function ask(raw) {
  const { stdout, status } = spawnSync("node", [MAIN, "serve"], { input: raw, maxBuffer: 2 ** 30 });
  assert.equal(status, 0);
  return stdout.toString().split("\n").filter(Boolean).map((line) => JSON.parse(line));
}
const request = (requests) => ask(requests.map((each, seq) => `${JSON.stringify({ seq, ...each })}\n`).join(""));

test("every file gets its verdict", async (t) => {
  for (const { name, clause, file } of cases) {
    await t.test(name, async () => {
      const found = await verdict(load(file));
      assert.equal(found.clause, clause, found.defect?.message);
      const unsupported = clause === "PRE-3" || clause === "PRE-4";
      assert.equal(found.verdict, clause === null ? "valid" : unsupported ? "unsupported" : "invalid");
    });
  }
});

test("every requirement that a file can break is broken by a file", { skip: !existsSync(SPEC) }, () => {
  const spec = readFileSync(SPEC, "utf8").split("\n## 8")[0].split("\n## 2")[1];
  const ids = [...spec.matchAll(/\*\*([A-Z]+-\d+)\.\*\*/g)].map(([, id]) => id).concat("SEG-1", "VER-1");
  const cannot = ["TRIT-1", "TRIT-2", "PACK-1", "CODE-1", "TEN-6", "TEN-7", "TEN-8", "TEN-10", "TEN-9", "LAY-1", "LAY-2"];
  const broken = new Set(cases.map(({ clause }) => clause));
  assert.deepEqual(ids.filter((id) => !broken.has(id)), cannot);
});

test("every quoted sentence stands in SPEC.md under its id", { skip: !existsSync(SPEC) }, () => {
  const spec = readFileSync(SPEC, "utf8").replace(/\s+/g, " ");
  const code = readFileSync(path(HERE, "../trit.js"), "utf8").replace(/\n\s*\/\/ ?/g, " ");
  const quoted = [...code.matchAll(/([A-Z]+-\d+): "([^"]*)"/g)];
  assert.ok(quoted.length > 50);
  for (const [, id, sentence] of quoted) assert.ok(spec.includes(`**${id}.** ${sentence}`), `${id}: ${sentence}`);
});

test("every truncation of a file is found", async () => {
  const bytes = load("valid-ranks.trit");
  for (let size = 0; size < bytes.length; size++) {
    assert.equal((await verdict(bytes.slice(0, size))).clause, size < 64 ? "PRE-1" : "PRE-6");
    const claimed = bytes.slice(0, size); // and again where the preamble agrees
    if (size < 64) continue;
    new DataView(claimed.buffer).setBigUint64(24, BigInt(size), true);
    const { clause } = await verdict(claimed);
    assert.ok(["PRE-7", "LAY-4"].includes(clause), clause);
  }
});

test("every change of one bit is found", async () => {
  for (const file of ["valid-empty.trit", "valid-ranks.trit", "valid-newer-minor.trit"]) {
    const bytes = load(file).slice();
    const step = bytes.length > 10000 ? 1009 : 1;
    for (let bit = 0; bit < 8 * bytes.length; bit += step) {
      bytes[bit >> 3] ^= 1 << (bit & 7);
      assert.notEqual((await verdict(bytes)).verdict, "valid", `bit ${bit} of ${file}`);
      bytes[bit >> 3] ^= 1 << (bit & 7);
    }
  }
});

test("a header with any one byte changed, and its digest made right, gets a verdict", async () => {
  for (const file of ["valid-ranks.trit", "valid-no-control.trit"]) {
    const bytes = load(file).slice();
    const size = Math.min(900, Number(new DataView(bytes.buffer).getBigUint64(16, true)));
    for (let at = 64; at < 64 + size; at++) {
      const before = bytes[at];
      for (const byte of [0, 0x7f, 0x80, 0x9f, 0xa0, 0xc0, 0xc6, 0xcf, 0xdb, 0xdd, 0xdf, 0xff, before ^ 1, before + 1]) {
        bytes[at] = byte;
        const headerSize = Number(new DataView(bytes.buffer).getBigUint64(16, true));
        bytes.set(createHash("sha256").update(bytes.subarray(64, 64 + headerSize)).digest(), 32);
        assert.match((await verdict(bytes)).verdict, /^(in)?valid$/);
      }
      bytes[at] = before;
    }
  }
});

test("a file that ends or fails while it is read is an error", async () => {
  const bytes = load("valid-ranks.trit");
  for (let size = 0; size < bytes.length; size += 7) {
    const source = { ...sourceOf(bytes.slice(0, size)), length: bytes.length };
    await assert.rejects(trit.verify(source), { clause: "READ-4" }, `cut at ${size}`);
  }
  const failing = { length: bytes.length, read: () => { throw new Error("gone"); } };
  await assert.rejects(trit.verify(failing), /gone/);
});

test("a length beyond 2^53 is not rounded", async () => {
  const bytes = load("valid-empty.trit").slice();
  const length = 2n ** 53n + 1n;
  const source = { ...sourceOf(bytes), length };
  new DataView(bytes.buffer).setBigUint64(24, length, true);
  assert.equal((await trit.verify(source)).clause, "LAY-4");
  new DataView(bytes.buffer).setBigUint64(24, length - 1n, true);
  assert.equal((await trit.verify(source)).clause, "PRE-6");
});

test("no read is larger than the file, and verification holds no more than a chunk of data", async () => {
  for (const { file } of cases) {
    const bytes = load(file);
    const source = { length: bytes.length, read(offset, size) {
      assert.ok(Number(offset) + size <= bytes.length && size <= 2 ** 26);
      return bytes.slice(Number(offset), Number(offset) + size);
    } };
    await trit.verify(source);
  }
});

test("decoding gives what fractions give", () => {
  const requests = decode.map(({ file, tensor, depth, dtype }) =>
    ({ cmd: "decode", file: path(FOLDER, file), tensor, depth, dtype }));
  request(requests).forEach(({ seq, result }) => assert.deepEqual(result, decode[seq].result, JSON.stringify(requests[seq])));
});

test("binary16 and bfloat16 round to nearest, ties to even", () => {
  const float = (bits) => new DataView(Uint32Array.of(bits).buffer).getFloat32(0, true);
  const bitsOf = (value) => new DataView(Float32Array.of(value).buffer).getUint32(0, true);
  const half = (h) => (h >> 10 ? (1024 + (h & 1023)) * 2 ** ((h >> 10) - 25) : h * 2 ** -24);
  const brain = (b) => float(b << 16);
  const sweep = (value, round, count, step) => {
    for (let h = 0; h + 1 < count; h += step) {
      const [low, high] = [value(h), value(h + 1)];
      assert.equal(round(bitsOf(low)), h);
      const middle = bitsOf((low + high) / 2);
      assert.equal(round(middle), h % 2 ? h + 1 : h, `the middle above ${h}`);
      if (middle > 0x800000) assert.deepEqual([round(middle - 1), round(middle + 1)], [h, h + 1]);
      assert.equal(round((middle | 0x80000000) >>> 0), 0x8000 | (h % 2 ? h + 1 : h));
    }
  };
  sweep(half, trit.float16Bits, 0x7c00, 1);
  sweep(brain, trit.bfloat16Bits, 0x7f80, 3);
  assert.equal(trit.float16Bits(bitsOf(65519.99)), 0x7bff);
  assert.equal(trit.float16Bits(bitsOf(65520)), 0x7c00);
  assert.equal(trit.float16Bits(bitsOf(1e30)), 0x7c00);
  assert.equal(trit.float16Bits(bitsOf(2 ** -25)), 0);
  assert.equal(trit.float16Bits(bitsOf(2 ** -25 * 1.001)), 1);
  assert.equal(trit.float16Bits(0x00800000), 0);
  assert.equal(trit.bfloat16Bits(0x7f7f8000), 0x7f80);
  assert.equal(trit.bfloat16Bits(0x7f7f7fff), 0x7f7f);
});

test("SHA-256 is that of node:crypto", () => {
  const reference = (bytes) => createHash("sha256").update(bytes).digest("hex");
  const data = Uint8Array.from({ length: 400 }, (_, i) => i * i);
  for (let size = 0; size <= 300; size++) {
    const bytes = data.subarray(0, size);
    for (const cut of [0, 1, 55, 63, 64, 65, size]) {
      const hash = new trit.Sha256().update(bytes.subarray(0, cut)).update(bytes.subarray(cut));
      assert.equal(trit.toHex(hash.digest()), reference(bytes), `${size} bytes cut at ${cut}`);
    }
  }
});

test("SHA-256 of more than 2^32 bits", () => {
  const chunk = new Uint8Array(2 ** 24).fill(7);
  const [ours, theirs] = [new trit.Sha256(), createHash("sha256")];
  for (let i = 0; i < 33; i++) {
    ours.update(chunk);
    theirs.update(chunk);
  }
  assert.equal(trit.toHex(ours.digest()), theirs.digest("hex"));
});

test("levels are counted without padding", async () => {
  for (const name of ["ragged", "ranks", "depth-4-rows-6", "depth-3-rows-11", "depth-2-rows-5", "long-row"]) {
    const source = sourceOf(load(`valid-${name}.trit`));
    const header = await trit.readHeader(source);
    for (const tensor of header.tensors.filter(({ kind }) => kind === "trit")) {
      const segments = header.segments.filter((segment) => segment.tensor === tensor);
      const H = (3 ** tensor.depth - 1) / 2;
      const expected = new Array(2 * H + 1).fill(0);
      for await (const { levels } of trit.decode(source, tensor, segments)) for (const k of levels) expected[k + H] += 1;
      assert.deepEqual(await trit.countLevels(source, tensor, segments), expected);
    }
  }
});

test("level 1: verdicts and exit statuses", () => {
  const run = (...operands) => spawnSync("node", [MAIN, ...operands], { encoding: "utf8", timeout: 20000 });
  const answers = (file, line, status) => {
    const ran = run("verify", path(FOLDER, file));
    assert.deepEqual([ran.stdout, ran.status], [line, status], ran.stderr);
  };
  const broken = (clause) => cases.find((each) => each.clause === clause).file;
  answers("valid-empty.trit", '{"verdict": "valid", "clause": null}\n', 0);
  answers(broken("PACK-2"), '{"verdict": "invalid", "clause": "PACK-2"}\n', 1);
  answers(broken("PRE-4"), '{"verdict": "unsupported", "clause": "PRE-4"}\n', 3);
  execFileSync("mkfifo", [path(FOLDER, "fifo")]);
  for (const operands of [["verify", FOLDER], ["verify", path(FOLDER, "none")], ["verify", path(FOLDER, "fifo")],
    ["verify", "/dev/zero"], ["verify"], [], ["verify", "a", "b"], ["look", "a"]]) {
    const ran = run(...operands);
    assert.deepEqual([ran.stdout, ran.status], ["", 2], operands.join(" "));
  }
  const named = run("verify", path(FOLDER, "valid-newer-minor.trit"));
  assert.match(named.stderr, /ignored: "other"/);
});

test("level 2: the header", () => {
  const [{ result }, metadata, damaged] = request([
    { cmd: "header", file: path(FOLDER, "valid-ranks.trit") },
    { cmd: "header", file: path(FOLDER, "valid-metadata.trit") },
    { cmd: "header", file: path(FOLDER, cases.find(({ clause }) => clause === "PRE-8").file) },
  ]);
  const bytes = load("valid-ranks.trit");
  const size = Number(new DataView(bytes.buffer).getBigUint64(16, true));
  assert.equal(result.identity, createHash("sha256").update(bytes.subarray(64, 64 + size)).digest("hex"));
  assert.deepEqual(result.version, [1, 0]);
  const start = 64 * Math.ceil((64 + size) / 64);
  assert.deepEqual(result.tensors.map(({ name, kind, shape }) => [name, kind, shape]), [
    ["a", "trit", [9]], ["b", "trit", [1, 2, 1, 3, 1, 1, 2, 5]], ["c", "trit", [6, 40]], ["r", "raw", [3]]]);
  assert.deepEqual(result.tensors.map(({ offsets }) => offsets.map((offset) => (offset - start) / 64)), [
    [1, 2, 3, 10, 14], [4, 5, 6, 11, 15, 18], [7, 8, 9, 12, 16], [0]]); // a plane of c takes 80 bytes
  assert.equal(result.tensors[2].codebook.length, 216);
  assert.equal(metadata.result.metadata["😀"].length, 70000);
  assert.equal(metadata.result.metadata.author, "Ω ⟨é⟩ 😀");
  assert.deepEqual(damaged.result, { error: "PRE-8" });
});

test("level 2: pack, unpack, split, join", () => {
  const hex = (numbers) => Buffer.from(Int8Array.from(numbers).buffer).toString("hex");
  const answers = request([
    { cmd: "unpack", rows: 6, columns: 2, packed: "71817a79" },
    { cmd: "pack", rows: 6, columns: 2, trits: "01ff0000ff01000000000100" },
    { cmd: "split", depth: 3, levels: hex([5, -13, 13, 0]) },
    { cmd: "join", planes: [hex([-1, -1, 1]), hex([-1, -1, 1]), hex([1, -1, 1])] },
    { cmd: "unpack", rows: 5, columns: 1, packed: "f3" },
    { cmd: "unpack", rows: 1, columns: 1, packed: "f2" },
    { cmd: "unpack", rows: 6, columns: 1, packed: "79" },
    { cmd: "pack", rows: 1, columns: 1, trits: "02" },
    { cmd: "split", depth: 1, levels: "02" },
    { cmd: "split", depth: 5, levels: "02" },
    { cmd: "join", planes: ["80"] },
    { cmd: "unpack", rows: 0, columns: 2 ** 40, packed: "" },
    { cmd: "pack", rows: 2 ** 40, columns: 0, trits: "" },
    { cmd: "unpack", rows: 2 ** 40, columns: 2 ** 40, packed: "" },
  ]).map(({ result }) => result);
  assert.deepEqual(answers.slice(0, 4), [
    { trits: "01ff0000ff01000000000100" }, { packed: "71817a79" },
    { planes: [hex([-1, -1, 1, 0]), hex([-1, -1, 1, 0]), hex([1, -1, 1, 0])] }, { levels: hex([5, -13, 13]) }]);
  assert.deepEqual(answers.slice(4, 11).map(({ error }) => error),
    ["PACK-2", "PACK-3", "PACK-1", "TRIT-1", "TRIT-2", "TEN-2", "TRIT-1"]);
  assert.deepEqual(answers.slice(11, 13), [{ trits: "" }, { packed: "" }]);
});

test("level 2: the edges of the protocol", () => {
  const file = path(FOLDER, "valid-empty.trit");
  const lines = [
    `{"unknown": [1, {"a": null}], "file": ${JSON.stringify(file).replace("valid", "\\u0076alid")}, "cmd": "verify", "seq": 7}`,
    '{"seq": 8, "cmd": "matmul", "rows": 1}', '{"seq": 9, "cmd": "constructor"}', "nonsense", "[]", "3", "",
    `{"seq": 10, "cmd": "verify", "file": "/none \u2028"}`, '{"seq": 11, "cmd": "verify"}',
    '{"seq": 12, "cmd": "pack", "rows": -1, "columns": 1, "trits": "0"}',
    `{"seq": 13, "cmd": "${"x".repeat(2 ** 20)}"}`,
    '{"seq": 14, "cmd": "join", "planes": [{}]}', '{"seq": 15, "cmd": "join", "planes": [null, 1]}',
    `{"seq": 16, "cmd": "decode", "file": ${JSON.stringify(file)}, "tensor": "\\ud83d\\ude00", "depth": null, "dtype": "F32"}`,
    '{"seq": 17, "cmd": "verify", "file": "a\\u0000b"}',
  ];
  const answers = ask(lines.join("\n"));
  assert.deepEqual(answers[0], { seq: 7, result: { verdict: "valid", clause: null } });
  assert.equal(answers.length, lines.length);
  for (const answer of answers.slice(1)) assert.equal(typeof answer.skipped, "string", JSON.stringify(answer));
});

test("level 2: a verdict for every file", () => {
  const answers = request(cases.map(({ file }) => ({ cmd: "verify", file: path(FOLDER, file) })));
  answers.forEach(({ seq, result }) => assert.equal(result.clause, cases[seq].clause));
});

test("decode gives the clause of what it reads", () => {
  const damaged = cases.filter(({ clause }) => ["PACK-2", "PACK-3", "SEG-1"].includes(clause));
  const answers = request(damaged.map(({ file, name }) =>
    ({ cmd: "decode", file: path(FOLDER, file), tensor: name === "SEG-1 raw" ? "r" : "w", depth: null, dtype: "F32" })));
  answers.forEach(({ seq, result }) => assert.deepEqual(result, { error: damaged[seq].clause }));
});

test("a server answers while its input is open", async () => {
  const server = spawn("node", [MAIN, "serve"]);
  const answer = new Promise((resolve) => server.stdout.once("data", (data) => resolve(data.toString())));
  server.stdin.write('{"seq": 1, "cmd": "join", "planes": ["01"]}\n');
  assert.equal(await answer, '{"seq": 1, "result": {"levels": "01"}}\n');
  server.stdin.end();
  assert.equal(await new Promise((resolve) => server.once("exit", resolve)), 0);
});
