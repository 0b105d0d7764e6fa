// Take the README's pictures from a running demo: node take.mjs http://127.0.0.1:PORT [folder]
// Needs playwright-core (npm install playwright-core, outside this repository) and Chromium; see README.md here.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";

const [url, folder = "."] = process.argv.slice(2);
const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
const profile = mkdtempSync(join(tmpdir(), "wal-pipeline-pictures-"));
const quiet = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync"];
const browser = await chromium.launchPersistentContext(profile, {
  executablePath, headless: true, args: quiet, viewport: { width: 1400, height: 860 }, colorScheme: "light",
});
const page = browser.pages()[0] ?? await browser.newPage();

async function picture(name, path, wanted, prepare = async () => {}) {
  await page.goto(url + path, { timeout: 60000 });
  await page.getByText(wanted).first().waitFor({ timeout: 60000 });
  await prepare();
  await page.waitForTimeout(3000);
  await page.screenshot({ path: join(folder, name) });
  console.log(name);
}

const group = "/locations/wal_pipeline/asset-groups/wal_archive/lineage";
await picture("asset-graph.png", group, /[0-9]+ partitions/);
await picture("partitions.png", "/assets/main/wal_segment/r2?view=partitions", /Materialized \([1-9]/, async () => {
  await page.getByText(/^0000000100000000000000/).nth(4).click();
  await page.getByText("compression_ratio").waitFor({ timeout: 60000 });
});
await picture("plots.png", "/assets/main/wal_segment/r2?view=overview", "lag_seconds", async () => {
  await page.getByText("Plots", { exact: true }).click();
  await page.getByText("Value", { exact: true }).first().waitFor({ timeout: 5000 }).catch(() => {});
});
await picture("recovery-window.png", "/assets/main/recovery_window?view=overview", "can_recover");
await browser.close();
rmSync(profile, { recursive: true, force: true });
