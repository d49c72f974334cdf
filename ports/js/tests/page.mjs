// The self-test of index.html in headless Chromium: node tests/page.mjs [FOLDER for screenshots [FILE ...]].
//
// Opens the page from file://, chooses files as a user does, and compares what the page shows with what it has to. The
// browser is spoken to by --remote-debugging-pipe: JSON, each message ended by a zero byte, on its descriptors 3 and 4.

import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const HERE = fileURLToPath(new URL(".", import.meta.url));
const BROWSER = process.env.CHROMIUM ?? "chromium";
const FOLDER = mkdtempSync(join(tmpdir(), "trit-page-"));
const [shots, ...files] = process.argv.slice(2).map((each) => resolve(each));

class Browser {
  constructor() {
    const flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync",
      "--disable-component-update", "--no-first-run", "--disable-dev-shm-usage", `--user-data-dir=${join(FOLDER, "profile")}`,
      "--remote-debugging-pipe", "about:blank"];
    this.process = spawn(BROWSER, flags, { stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"] });
    Object.assign(this, { next: 1, waiting: new Map(), listeners: [], rest: "", session: undefined });
    this.process.stdio[4].setEncoding("utf8").on("data", (data) => this.receive(data));
  }

  receive(data) {
    const messages = (this.rest + data).split("\0");
    this.rest = messages.pop();
    for (const message of messages.map((text) => JSON.parse(text))) {
      if (message.id) this.waiting.get(message.id)(message);
      else this.listeners.forEach((listener) => listener(message));
    }
  }

  async send(method, params = {}) {
    const id = this.next++;
    const answer = new Promise((done) => this.waiting.set(id, done));
    this.process.stdio[3].write(`${JSON.stringify({ id, method, params, sessionId: this.session })}\0`);
    const { result, error } = await answer;
    if (error) throw new Error(`${method}: ${error.message}`);
    return result;
  }

  async evaluate(expression) {
    const { result, exceptionDetails } = await this.send("Runtime.evaluate", { expression, awaitPromise: true, returnByValue: true });
    if (exceptionDetails) throw new Error(exceptionDetails.exception.description);
    return result.value;
  }

  async open(url) {
    const { targetInfos } = await this.send("Target.getTargets");
    const { targetId } = targetInfos.find(({ type }) => type === "page");
    this.session = (await this.send("Target.attachToTarget", { targetId, flatten: true })).sessionId;
    for (const domain of ["Page", "Network", "Runtime", "Log"]) await this.send(`${domain}.enable`);
    const loaded = new Promise((done) => this.listeners.push(({ method }) => method === "Page.loadEventFired" && done()));
    await this.send("Page.navigate", { url });
    await loaded;
  }

  /** Chooses a file in the page's input, and waits until the page has done with it. */
  async choose(path) {
    await this.evaluate("delete document.body.dataset.done");
    const { root } = await this.send("DOM.getDocument");
    const { nodeId } = await this.send("DOM.querySelector", { nodeId: root.nodeId, selector: "#file" });
    await this.send("DOM.setFileInputFiles", { nodeId, files: [path] });
    await this.evaluate(`new Promise((done, fail) => {
      const began = Date.now();
      const look = () => document.body.dataset.done ? done() : Date.now() - began > 60000 ? fail("no end") : setTimeout(look, 5);
      look();
    })`);
    return this.evaluate(`({
      verdict: document.querySelector(".verdict").className.split(" ")[1],
      clause: document.querySelector(".verdict").dataset.clause ?? "",
      text: document.querySelector(".verdict").innerText,
      tensors: [...document.querySelectorAll(".tensor")].map((each) => each.innerText),
      charts: document.querySelectorAll(".tensor svg").length,
      bars: [...document.querySelectorAll(".tensor svg rect title")].map((each) => each.textContent),
    })`);
  }

  async shoot(name, width, height, scheme) {
    await this.send("Emulation.setDeviceMetricsOverride", { width, height, deviceScaleFactor: 1, mobile: width < 600 });
    await this.send("Emulation.setEmulatedMedia", { features: [{ name: "prefers-color-scheme", value: scheme }] });
    assert.ok(await this.evaluate("document.documentElement.scrollWidth <= innerWidth"), `${name} is wider than ${width}`);
    const { data } = await this.send("Page.captureScreenshot", { captureBeyondViewport: false });
    writeFileSync(join(shots, `${name}-${width}-${scheme}.png`), Buffer.from(data, "base64"));
  }
}

const casesOf = (folder) => JSON.parse(readFileSync(join(folder, "manifest.json"))).cases;

async function checkCases(browser, folder) {
  const cases = casesOf(folder);
  for (const { name, clause, file } of cases) {
    const shown = await browser.choose(join(folder, file));
    assert.equal(shown.clause, clause ?? "", `${name}: ${shown.text}`);
    const verdict = clause === null ? "valid" : /^PRE-[34]$/.test(clause) ? "unsupported" : "invalid";
    assert.equal(shown.verdict, verdict, name);
    if (clause) assert.ok(shown.text.includes(clause));
  }
  return cases.length;
}

async function checkShown(browser, folder) {
  const ragged = await browser.choose(join(folder, "valid-ragged.trit"));
  assert.equal(ragged.charts, 4);
  assert.equal(ragged.bars.length, 3 + 9 + 27 + 81);
  assert.equal(ragged.bars.slice(0, 3).join("; "), "level -1: 1 (33.3 %); level 0: 1 (33.3 %); level 1: 1 (33.3 %)");
  const depth = await browser.choose(join(folder, "valid-depth-2-rows-11.trit"));
  assert.match(depth.tensors[0], /11 × 37[^]*F32[^]*2 \(shift 2\)[^]*16[^]*Stored bits a weight\s*4\.894\s*Information in bits\s*3\.555/);
  const hostile = await browser.choose(join(folder, "valid-hostile.trit"));
  assert.equal(hostile.verdict, "valid");
  assert.ok(hostile.tensors[0].includes("<img src=x onerror="));
  const foreign = await browser.evaluate("[document.images.length, document.querySelectorAll('script').length, globalThis.broken ?? null]");
  assert.deepEqual(foreign, [0, 2, null]);
  const damaged = casesOf(folder).find(({ name }) => name === "SEG-1 and LAY-3").file;
  const found = await browser.choose(join(folder, damaged));
  assert.equal(found.verdict, "invalid");
  assert.match(found.text, /SEG-1[^]*tensor w[^]*byte [\d,]+[^]*LAY-3/);
  assert.equal(found.charts, 0);
}

async function main() {
  execFileSync("python3", [join(HERE, "make_files.py"), FOLDER]);
  const browser = new Browser();
  const requests = [];
  const errors = [];
  browser.listeners.push(({ method, params }) => {
    if (method === "Network.requestWillBeSent") requests.push(params.request.url);
    if (method === "Runtime.exceptionThrown") errors.push(params.exceptionDetails.exception?.description);
    if (method === "Log.entryAdded" && params.entry.level === "error") errors.push(params.entry.text);
  });
  try {
    await browser.open(pathToFileURL(join(HERE, "../index.html")).href);
    if (shots) await shootStart(browser);
    await checkShown(browser, FOLDER);
    const count = await checkCases(browser, FOLDER);
    if (shots) await shootAll(browser);
    const own = requests.map((url) => basename(url)).filter((name) => !name.startsWith("data:"));
    assert.deepEqual([...new Set(own)].filter((name) => name !== ","), ["index.html", "trit.js"]);
    assert.deepEqual(errors, []);
    console.log(`page: ${count} files of the self-test, and what is shown of four: as it should be`);
  } finally {
    browser.process.kill();
    await new Promise((done) => browser.process.once("exit", done));
    rmSync(FOLDER, { recursive: true, force: true });
  }
}

async function shootStart(browser) {
  mkdirSync(shots, { recursive: true });
  for (const scheme of ["light", "dark"]) await browser.shoot("start", 1200, 800, scheme);
}

async function shootAll(browser) {
  for (const path of [...files, ...["SEG-1 and LAY-3", "ragged", "hostile", "newer-minor"].map((name) =>
    join(FOLDER, casesOf(FOLDER).find((each) => each.name === name).file))]) {
    const { verdict, text } = await browser.choose(path);
    console.log(`${path}: ${verdict}: ${text.split("\n")[0]}`);
    for (const [width, height] of [[1200, 1000], [375, 900]]) {
      for (const scheme of ["light", "dark"]) {
        await browser.evaluate("scrollTo(0, 0)");
        await browser.shoot(basename(path, ".trit"), width, height, scheme);
        await browser.evaluate("document.querySelector('figure')?.closest('.tensor').scrollIntoView()");
        await browser.shoot(`${basename(path, ".trit")}-tensors`, width, height, scheme);
      }
    }
  }
}

await main();
