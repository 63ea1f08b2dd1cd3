// Pictures of each screen and state, for docs/screens. The kiosk's states that need a
// broken device are played to the page; all else is real. The faces are portraits in the
// public domain.
import { mkdirSync, readFileSync, rmSync } from 'node:fs';
import { cut, scenes } from './film.mjs';
import { api, browser, cache, open, sizes } from './lib.mjs';

const out = process.env.SCREENS;
rmSync(out, { recursive: true, force: true });
mkdirSync(out, { recursive: true });

const b = await browser(cut(process.env.FILM, `${cache}/enrolled.mjpeg`, ...scenes.enrolled));
const face = readFileSync(`${process.env.FACES}/obama2.jpg`);
const save = (page, name) => page.screenshot({ path: `${out}/${name}.jpg`, type: 'jpeg', quality: 62, scale: 'css' });

// A result of the loop, and what the loop says, as the page gets them.
const result = (status, name) => ({ event: 'result', data: { id: status, subject_id: name ? 'x' : '', name, at: new Date(), decision: { status, score: 90, scored: true, warnings: [], frames: 8 } } });
const update = (state, more = {}) => ({ event: 'update', data: { state, seq: 1, width: 1280, height: 720, ...more } });
const conditions = (...codes) => ({ event: 'status', data: { conditions: codes.map((code) => ({ code, blocking: !['offline', 'hub_lost'].includes(code) })) } });
const there = { face: { box: { x: 560, y: 180, w: 160, h: 200 } } };
const finding = (code) => ({ ...there, findings: [{ code, value: 0, limit: 1, unit: '' }], progress: 0.3 });

const states = {
  ready: [conditions(), update('idle')],
  looking: [conditions(), update('looking', { ...there, progress: 0.6 })],
  closer: [conditions(), update('looking', finding('FACE_TOO_SMALL'))],
  light: [conditions(), update('looking', finding('FACE_TOO_DARK'))],
  several: [conditions(), update('looking', finding('SEVERAL_FACES'))],
  still: [conditions(), update('looking', finding('FACE_BLURRED'))],
  turn: [conditions(), update('looking', { ...there, task: 'turn_left', progress: 0.5 })],
  approved: [conditions(), update('decided', there), result('Approved', 'Barack Obama')],
  review: [conditions(), update('decided', there), result('In Review')],
  declined: [conditions(), update('decided', there), result('Declined')],
  throttled: [conditions(), update('throttled', there)],
  camera: [conditions(), update('no_camera')],
  failed: [conditions(), update('failed')],
  offline: [conditions('hub_lost', 'offline'), update('idle')],
  maintenance: [conditions('maintenance'), update('closed')],
  disk: [conditions('disk_full'), update('closed')],
  clock: [conditions('clock_wrong'), update('closed')],
  model: [conditions('model_missing'), update('closed')],
};

// kiosk shows a state: the stream is played to the page, the live view is a portrait.
async function kiosk(name, { size, lang, scheme }) {
  const page = await open(b, { size, scheme });
  await page.route('**/live.mjpg*', (r) => r.fulfill({ contentType: 'image/jpeg', body: face }));
  await page.addInitScript((events) => {
    window.EventSource = class extends EventTarget {
      constructor() {
        super();
        setTimeout(() => {
          if (this.onopen) this.onopen();
          for (const e of events) this.dispatchEvent(new MessageEvent(e.event, { data: JSON.stringify(e.data) }));
        }, 50);
      }
      close() {}
    };
  }, states[name]);
  await page.goto(`${process.env.API_URL}/?lang=${lang}`);
  await page.waitForTimeout(1200);
  return page;
}

for (const name of Object.keys(states)) {
  const lang = ['ready', 'approved', 'declined', 'closer'].includes(name) ? ['en', 'ja'] : ['en'];
  for (const l of lang) {
    const page = await kiosk(name, { size: sizes.kiosk, lang: l, scheme: 'light' });
    await save(page, `kiosk-${name}-${l}`);
    await page.context().close();
  }
}
for (const [name, scheme, lang] of [['approved', 'dark', 'ja'], ['ready', 'light', 'en']]) {
  const page = await kiosk(name, { size: sizes.portrait, lang, scheme });
  await save(page, `kiosk-${name}-portrait-${lang}`);
  await page.context().close();
}
{
  const page = await kiosk('ready', { size: sizes.kiosk, lang: 'en', scheme: 'light' });
  await page.click('#open-privacy');
  await save(page, 'kiosk-privacy-en');
  await page.keyboard.press('Escape');
  await page.click('#open-keypad');
  await save(page, 'kiosk-keypad-en');
  await page.keyboard.press('Escape');
  await page.evaluate(() => { document.getElementById('saver').hidden = false; });
  await save(page, 'kiosk-screensaver-en');
  await page.context().close();
}

// The page of a session, as it goes.
const workflow = (await api('/v3/workflows/', { workflow_label: 'screens', features: ['ID_VERIFICATION', 'LIVENESS', 'FACE_MATCH'] })).uuid;
for (const [lang, scheme] of [['en', 'light'], ['ja', 'dark']]) {
  const s = await api('/v3/session/', { workflow_id: workflow, vendor_data: `screens-${lang}`, language: lang });
  const page = await open(b, { scheme });
  await page.goto(s.url);
  await page.waitForSelector('#agree:visible');
  await save(page, `hosted-consent-${lang}`);
  await page.click('#open-phone');
  await save(page, `hosted-phone-${lang}`);
  await page.keyboard.press('Escape');
  await page.check('#agree');
  await page.click('#consent button');
  await page.waitForSelector('#document-camera:visible');
  await save(page, `hosted-document-${lang}`);
  await page.setInputFiles('#document-file', `${process.env.FACES}/obama.jpg`);
  await page.waitForSelector('#document-send:visible');
  await save(page, `hosted-document-check-${lang}`);
  await page.click('#document-send');
  await page.waitForFunction(() => document.body.dataset.screen === 'face' && document.getElementById('face-video').videoWidth > 0);
  await page.waitForTimeout(600);
  await save(page, `hosted-face-${lang}`);
  await page.waitForFunction(() => document.body.dataset.screen === 'result');
  await save(page, `hosted-result-${lang}`);
  await page.context().close();
}
for (const [what, name] of [['NotAllowedError', 'refused'], ['NotFoundError', 'none']]) {
  const s = await api('/v3/session/', { workflow_id: workflow, vendor_data: `screens-${name}` });
  const page = await open(b);
  await page.addInitScript((kind) => { navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('', kind)); }, what);
  await page.goto(s.url);
  await page.check('#agree');
  await page.click('#consent button');
  await page.click('#document-camera');
  await page.waitForSelector('#camera-title:visible');
  await save(page, `hosted-camera-${name}-en`);
  await page.context().close();
}
{
  const page = await open(b);
  await page.goto(`${process.env.API_URL}/ja/session/AAAAAAAAAAAA`);
  await save(page, 'hosted-gone-ja');
  await page.goto(`${process.env.API_URL}/session/AAAAAAAAAAAA`);
  await save(page, 'hosted-gone-en');
  await page.context().close();
  for (const scheme of ['light', 'dark']) {
    const d = await open(b, { size: { width: 1280, height: 900 }, scheme });
    await d.goto(`${process.env.API_URL}/design`);
    await d.waitForTimeout(500);
    await save(d, `design-${scheme}`);
    await d.context().close();
  }
}
await b.close();
