// Opens reports in headless Chromium, light on a desk and dark on a phone: no error, no request, no overflow, and
// nothing that axe-core finds. Leaves a picture of each beside it.
//
//     node check.mjs FILE.html ...      CHROMIUM names the browser where it is not on the path.

import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import puppeteer from "puppeteer-core";

const VIEWS = [
  ["light", 1100],
  ["dark", 390],
];
const SLOW = 300_000; // milliseconds; a busy machine

function browserPath() {
  const names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
  const script = names.map((name) => `command -v ${name}`).join(" || ");
  return process.env.CHROMIUM ?? execFileSync("sh", ["-c", script], { encoding: "utf8" }).trim();
}

async function problemsOf(browser, file, scheme, width, axe) {
  const page = await browser.newPage();
  page.setDefaultTimeout(SLOW);
  const found = [];
  page.on("console", (message) => found.push(`console: ${message.text()}`));
  page.on("pageerror", (error) => found.push(`error: ${error}`));
  page.on("request", (request) => {
    if (!/^(file|data):/.test(request.url())) found.push(`request: ${request.url()}`);
  });
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
  await page.setViewport({ width, height: 900 });
  const begun = Date.now();
  await page.goto(pathToFileURL(resolve(file)).href, { waitUntil: "load" });
  const took = Date.now() - begun;
  const over = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
  if (over > 0) found.push(`${over} pixels wider than the screen`);
  await page.screenshot({ path: file.replace(/\.html$/, `_${scheme}.png`), fullPage: true });
  await page.evaluate(axe);
  const { passes, violations } = await page.evaluate(() => axe.run());
  for (const one of violations) found.push(`axe-core ${one.id}: ${one.help}: ${one.nodes[0].html.slice(0, 200)}`);
  await page.close();
  console.log(`${file}, ${scheme}, ${width} pixels: drawn in ${took} ms, ${passes.length} rules hold`);
  return found;
}

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const browser = await puppeteer.launch({
  executablePath: browserPath(),
  args: ["--no-sandbox"],
  protocolTimeout: SLOW,
});
const problems = [];
for (const file of process.argv.slice(2)) {
  for (const [scheme, width] of VIEWS) problems.push(...(await problemsOf(browser, file, scheme, width, axe)));
}
await browser.close();
for (const one of problems) console.error(one);
process.exit(problems.length ? 1 : 0);
