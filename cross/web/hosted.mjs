// The page of a session, from end to end: real browser, real camera stream, real SDK,
// real agent.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { cut, scenes } from './film.mjs';
import { accessible, api, browser, cache, integrator, open, portrait, receiver, serve, sizes, until } from './lib.mjs';

const film = (name) => cut(process.env.FILM, `${cache}/${name}.mjpeg`, ...scenes[name]);
let b, stranger, hooks, secret = '', workflow, withDocument;

before(async () => {
  b = await browser(film('enrolled'));
  stranger = await browser(film('stranger'));
  hooks = await receiver(() => secret);
  const made = await api('/v3/webhook/destinations/', { label: 'tests', url: hooks.url, subscribed_events: ['status.updated'] });
  secret = made.secret_shared_key;
  workflow = (await api('/v3/workflows/', { workflow_label: 'hosted', features: ['LIVENESS', 'FACE_MATCH'] })).uuid;
  withDocument = (await api('/v3/workflows/', { workflow_label: 'document', features: ['ID_VERIFICATION', 'LIVENESS', 'FACE_MATCH'] })).uuid;
});
after(async () => {
  await Promise.all([b, stranger].map((x) => x && x.close()));
  if (hooks) await hooks.close();
});

let count = 0;
const session = (more = {}) => api('/v3/session/', { workflow_id: workflow, vendor_data: `person-${++count}`, portrait_image: portrait('obama.jpg'), ...more });

const result = (page) => page.waitForFunction(() => document.body.dataset.screen === 'result' && document.body.dataset.result).then((h) => h.jsonValue());

async function agree(page) {
  await page.check('#agree');
  await page.click('#consent button');
}

for (const lang of ['en', 'ja']) {
  for (const how of ['modal', 'inline']) {
    test(`the SDK, ${how}, ${lang}: approved, and the webhook arrives`, async () => {
      const s = await session({ language: lang });
      const site = await integrator(Number(process.env.SITE_PORT), s.url, how);
      const page = await open(b, { size: lang === 'ja' ? sizes.portrait : sizes.phone });
      try {
        await page.goto(`${site.url}/`);
        const frame = await (await page.waitForSelector('iframe')).contentFrame();
        await agree(frame);
        await until('completion', () => page.evaluate(() => window.done[0] || window.heard.some((e) => e.type === 'didit:completed')));
        assert.equal(await frame.evaluate(() => document.documentElement.lang), lang);
        const [heard, done] = await page.evaluate(() => [window.heard, window.done]);
        const kinds = heard.map((e) => e.type);
        let at = -1;
        for (const kind of ['didit:ready', 'didit:step_started', 'didit:media_started', 'didit:media_captured', 'didit:verification_submitted', 'didit:step_completed', 'didit:completed']) {
          assert.ok(kinds.indexOf(kind) > at, `${kind} is not in its place: ${kinds}`);
          at = kinds.indexOf(kind);
        }
        assert.deepEqual(done.map((d) => [d.type, d.session && d.session.sessionId, d.session && d.session.status]), [['completed', s.session_id, 'Approved']]);
      } finally {
        await page.context().close();
        await site.close();
      }
      const event = await until('the webhook', () => hooks.events.find((e) => e.session_id === s.session_id && e.status === 'Approved'));
      assert.equal(event.decision.face_matches[0].status, 'Approved');
      assert.equal(hooks.bad, 0);
    });
  }
}

test('a site that was not named cannot frame the page', async () => {
  const s = await session();
  const site = await integrator(0, s.url, 'inline');
  const page = await open(b);
  await page.goto(`${site.url}/`);
  await until('the refusal', () => page.problems.some((p) => p.includes('frame-ancestors')));
  assert.deepEqual(await page.evaluate(() => window.heard.filter((e) => e.type === 'didit:ready')), []);
  await page.context().close();
  await site.close();
});

test('a stranger is told, tries again, and is declined', async () => {
  const s = await session();
  const page = await open(stranger);
  await page.goto(s.url);
  await agree(page);
  await page.waitForSelector('[data-screen="face"] .retry:not([hidden])');
  await accessible(page, 'a failed attempt');
  assert.equal(await result(page), 'declined');
  assert.equal((await api(`/v3/session/${s.session_id}/decision/`)).status, 'Declined');
  assert.deepEqual(page.problems, []);
  await page.context().close();
});

test('document and selfie, reloaded between, are approved', async () => {
  const s = await session({ workflow_id: withDocument, portrait_image: undefined });
  const page = await open(b, { bypassCSP: true });
  await page.goto(s.url);
  await accessible(page, 'consent');
  await agree(page);
  await page.waitForSelector('[data-screen="document"]:not([hidden])');
  await accessible(page, 'document');
  await page.setInputFiles('#document-file', `${process.env.FACES}/obama.jpg`);
  await page.waitForSelector('#document-send:visible');
  await page.reload(); // nothing was sent: it is asked for again, and consent is not
  await page.waitForSelector('[data-screen="document"]:not([hidden])');
  await page.setInputFiles('#document-file', `${process.env.FACES}/obama.jpg`);
  await page.click('#document-send');
  await page.waitForSelector('[data-screen="face"]:not([hidden])');
  await accessible(page, 'face');
  await page.reload();
  assert.equal(await result(page), 'approved');
  await accessible(page, 'result');
  assert.deepEqual(await page.evaluate(() => [localStorage.length, sessionStorage.length, document.cookie]), [0, 0, '']);
  await page.context().close();
});

test('offline in the middle: it is told, and goes on by itself', async () => {
  const s = await session();
  const page = await open(b);
  await page.goto(s.url);
  await page.waitForSelector('#agree:visible');
  await page.context().setOffline(true);
  await agree(page);
  await page.waitForSelector('#trouble:not([hidden])');
  await page.context().setOffline(false);
  assert.equal(await result(page), 'approved');
  await page.context().close();
});

for (const [what, want, opts] of [['refused', 'The camera was refused', { camera: false }], ['none', 'No camera was found', {}]]) {
  test(`camera ${what}: it is told, with a way on`, async () => {
    const s = await session();
    const page = await open(b, opts);
    await page.addInitScript((kind) => {
      const name = { refused: 'NotAllowedError', none: 'NotFoundError' }[kind];
      navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('', name));
    }, what);
    await page.goto(s.url);
    await agree(page);
    await page.waitForSelector('[data-screen="camera"]:not([hidden])');
    assert.equal(await page.textContent('#camera-title'), want);
    await page.click('#camera-phone');
    await page.waitForSelector('#phone[open] svg');
    await page.context().close();
  });
}

test('a page that is not secure says so', async () => {
  const s = await session();
  const page = await open(b);
  await page.addInitScript(() => Object.defineProperty(window, 'isSecureContext', { value: false }));
  await page.goto(s.url);
  await agree(page);
  await page.waitForSelector('[data-screen="camera"]:not([hidden])');
  assert.equal(await page.textContent('#camera-title'), 'This page is not secure');
  await page.context().close();
});

test('a link that leads nowhere, in both languages', async () => {
  const page = await open(b, { bypassCSP: true });
  for (const [path, want] of [['/session/AAAAAAAAAAAA', 'This link leads nowhere'], ['/ja/session/AAAAAAAAAAAA', 'このリンクは無効です']]) {
    assert.equal((await page.goto(process.env.API_URL + path)).status(), 404);
    assert.equal(await page.textContent('h1'), want);
    await accessible(page, path);
  }
  await page.context().close();
});

test('consent that is not given sends nothing', async () => {
  const s = await session();
  const page = await open(b);
  await page.goto(s.url);
  await page.click('#decline');
  assert.equal(await result(page), 'declined_consent');
  assert.equal((await api(`/v3/session/${s.session_id}/decision/`)).status, 'Not Started');
  await page.context().close();
});

test('the page is small and quick', async () => {
  const s = await session();
  const page = await open(b);
  let bytes = 0;
  page.on('response', async (r) => { bytes += Number((await r.allHeaders())['content-length'] || (await r.body().catch(() => '')).length); });
  await page.goto(s.url);
  await page.waitForSelector('#agree:visible');
  const ready = await page.evaluate(() => performance.now());
  console.log(`    ${bytes} bytes; interactive after ${Math.round(ready)} ms`);
  assert.ok(bytes < 200_000, `${bytes} bytes`);
  await page.context().close();
});
