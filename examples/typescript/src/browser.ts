// Runs the scenario of page.ts in a headless Chromium.

import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { chromium } from "playwright-core";

const script = readFileSync(new URL("page.js", import.meta.url), "utf8");
// The page is of an origin of its own, so that the calls go across origins. It comes from this machine: Chromium
// lets no page of elsewhere call what listens on the loopback, as the gateway does here.
const server = createServer((_, answer) => {
  answer.setHeader("content-type", "text/html").end("<!doctype html><title>Cove</title>");
});
await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
const browser = await chromium.launch({
  executablePath: process.env.COVE_CHROMIUM ?? "/usr/bin/chromium",
  args: [
    // Chromium's own sandbox does not start as root; it shows nothing here but our page.
    ...(process.getuid?.() === 0 ? ["--no-sandbox"] : []),
    ...["--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-component-update"],
    ...["--disable-sync", "--no-first-run", "--no-proxy-server"],
  ],
});
try {
  const page = await browser.newPage();
  page.on("console", (message) => {
    (message.type() === "log" ? console.log : console.error)(message.text());
  });
  await page.goto(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`);
  await page.addScriptTag({ content: script });
  const variables = Object.fromEntries(Object.entries(process.env).filter(([name]) => name.startsWith("COVE_")));
  await page.evaluate((given) => window.run(given as Record<string, string>), variables);
} finally {
  await browser.close();
  server.close();
}
