// What the tests of the pages share: a browser with a fake camera, the API, a site that
// embeds the page, and a receiver of webhooks.
import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';

export const cache = process.env.WEB_CACHE;
const require = createRequire(`${cache}/package.json`);
const { chromium } = require('playwright-core');
const axe = readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8');

export const sizes = { kiosk: { width: 800, height: 480 }, portrait: { width: 1080, height: 1920 }, phone: { width: 390, height: 844 } };

// browser starts Chromium; film is what its camera sees, "none" is no camera, "ask" one
// that the person has not allowed.
export async function browser(film) {
  const args = ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--disable-background-networking', '--disable-component-update', '--no-first-run', '--mute-audio'];
  if (film) args.push('--use-fake-device-for-media-stream', `--use-file-for-fake-video-capture=${film}`);
  return chromium.launch({ executablePath: process.env.CHROMIUM || '/usr/bin/chromium', args });
}

// open makes a page whose errors fail the test.
export async function open(b, { size = sizes.phone, camera = true, locale = 'en-GB', scheme = 'light', bypassCSP = false } = {}) {
  const context = await b.newContext({ viewport: size, locale, colorScheme: scheme, permissions: camera ? ['camera'] : [], bypassCSP });
  const page = await context.newPage();
  page.problems = [];
  page.on('pageerror', (e) => page.problems.push(e.message));
  page.on('console', (m) => { if (m.type() === 'error') page.problems.push(m.text()); });
  page.setDefaultTimeout(120_000);
  return page;
}

// accessible runs axe and fails on what is serious or critical.
export async function accessible(page, name) {
  await page.evaluate(axe);
  const found = await page.evaluate(() => window.axe.run(document, { resultTypes: ['violations'] }));
  const grave = found.violations.filter((v) => ['serious', 'critical'].includes(v.impact));
  assert.deepEqual(grave.map((v) => `${v.id}: ${v.nodes.map((n) => n.target.join(' ')).join(', ')}`), [], `${name} is not accessible`);
}

export const api = (path, body, method = body ? 'POST' : 'GET') => fetch(process.env.API_URL + path, {
  method, headers: { 'x-api-key': process.env.API_KEY, 'Content-Type': 'application/json' }, body: body && JSON.stringify(body),
}).then(async (r) => {
  const text = await r.text();
  assert.ok(r.ok, `${method} ${path}: ${r.status} ${text}`);
  return text ? JSON.parse(text) : null;
});

export const portrait = (name) => readFileSync(`${process.env.FACES}/${name}`).toString('base64');

// serve answers with handler at a free port, or at the given one.
export async function serve(handler, port = 0) {
  const server = createServer(handler);
  await new Promise((done) => server.listen(port, '127.0.0.1', done));
  return { url: `http://127.0.0.1:${server.address().port}`, close: () => new Promise((done) => { server.closeAllConnections(); server.close(done); }) };
}

// receiver keeps the webhooks that have a right signature, and counts the others.
export async function receiver(secret) {
  const r = { events: [], bad: 0, waiting: [] };
  const s = await serve((req, res) => {
    const parts = [];
    req.on('data', (c) => parts.push(c));
    req.on('end', () => {
      const raw = Buffer.concat(parts);
      const want = createHmac('sha256', secret()).update(raw).digest('hex');
      const body = JSON.parse(raw);
      if (req.headers['x-signature-v2'] === want && req.headers['x-timestamp'] === String(body.timestamp)) r.events.push(body);
      else r.bad++;
      res.end('ok');
    });
  });
  return Object.assign(r, s);
}

export async function until(what, ask, ms = 60_000) {
  for (const end = Date.now() + ms; Date.now() < end; await new Promise((d) => setTimeout(d, 100))) {
    const got = await ask();
    if (got) return got;
  }
  assert.fail(`${what} did not happen`);
}

// integrator is a site that opens the link with the real SDK, as a modal or inline.
export function integrator(port, link, how) {
  const sdk = readFileSync(`${cache}/node_modules/@didit-protocol/sdk-web/dist/didit-sdk.umd.min.js`);
  const options = how === 'inline' ? ', embedded: true, embeddedContainerId: "here"' : '';
  const page = `<!doctype html><html lang="en"><title>shop</title><h1>Shop</h1><div id="here"></div><script src="/sdk.js"></script><script>
    window.heard = []; window.done = [];
    const sdk = window.DiditSDK.DiditSdk.shared;
    sdk.onComplete = (r) => window.done.push(r);
    sdk.onEvent = (e) => window.heard.push(e);
    sdk.startVerification({ url: ${JSON.stringify(link)}, configuration: { loggingEnabled: false${options} } });
  </script>`;
  return serve((req, res) => {
    if (req.url === '/sdk.js') { res.setHeader('Content-Type', 'text/javascript'); res.end(sdk); return; }
    res.setHeader('Content-Type', 'text/html');
    res.end(page);
  }, port);
}
