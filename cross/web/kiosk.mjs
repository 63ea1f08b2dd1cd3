// The kiosk on the sample film: people come to the entrance and the page guides them.
// The agent's camera plays the film; two pages, of two sizes and languages, watch.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { accessible, browser, open, sizes, until } from './lib.mjs';

let b;
before(async () => { b = await browser(); });
after(() => b && b.close());

// watch opens the kiosk and notes each new thing that it says.
async function watch(lang, size) {
  const page = await open(b, { size, bypassCSP: true });
  page.said = [];
  await page.exposeFunction('note', (mode, title) => { page.said.push([mode, title]); });
  await page.addInitScript(() => addEventListener('DOMContentLoaded', () => {
    const title = document.getElementById('title');
    let last = '';
    const look = () => {
      const now = `${document.body.dataset.mode} ${title.textContent}`;
      if (now !== last) window.note(document.body.dataset.mode, title.textContent);
      last = now;
    };
    new MutationObserver(look).observe(document.body, { subtree: true, childList: true, characterData: true, attributes: true });
  }));
  await page.goto(`${process.env.API_URL}/?lang=${lang}`);
  return page;
}

const words = {
  en: { yes: 'Welcome, Barack Obama', no: 'Not recognised' },
  ja: { yes: 'Barack Obama さん、ようこそ', no: '確認できませんでした' },
};

test('enrolled recognised, stranger refused, photo refused; in both languages', async () => {
  const pages = { en: await watch('en', sizes.kiosk), ja: await watch('ja', sizes.portrait) };
  // A round of the film, wherever it is: the four presentations in its order.
  const round = (lang) => {
    const results = pages[lang].said.filter(([mode]) => mode.startsWith('result-')).map(([mode, title]) => [mode, title]);
    const at = results.findIndex(([m], i) => m === 'result-yes' && results[i + 1] && results[i + 1][0] === 'result-no' && results[i + 2] && results[i + 2][0] === 'result-yes' && results[i + 3]);
    return at < 0 ? null : results.slice(at, at + 4);
  };
  for (const lang of ['en', 'ja']) {
    const got = await until(`a round in ${lang}`, () => round(lang), 400_000).catch((e) => { throw new Error(`${e.message}: ${JSON.stringify(pages[lang].said)}`); });
    assert.deepEqual(got, [['result-yes', words[lang].yes], ['result-no', words[lang].no], ['result-yes', words[lang].yes], ['result-no', words[lang].no]]);
    const modes = pages[lang].said.map(([mode]) => mode);
    assert.ok(modes.includes('looking'), modes.join());
    assert.deepEqual(pages[lang].problems, []);
  }
  await Promise.all(Object.values(pages).map((p) => p.context().close()));
});

test('keyboard only: a badge that is not known is told, dialogs open and close', async () => {
  const page = await open(b, { size: sizes.kiosk });
  await page.goto(`${process.env.API_URL}/`);
  await page.waitForSelector('#badge:visible');
  await page.keyboard.type('4711');
  await page.keyboard.press('Enter');
  await until('the answer', async () => (await page.textContent('#badge-answer')).includes('not known here'));
  assert.equal(await page.inputValue('#subject'), '');
  await page.focus('#open-privacy');
  await page.keyboard.press('Enter');
  await page.waitForSelector('#privacy[open]');
  await page.keyboard.press('Escape');
  await page.waitForSelector('#privacy', { state: 'hidden' });
  await page.context().close();
});

test('nothing is cut off and everything is accessible, at each size, in both themes and languages', async () => {
  for (const [name, size] of Object.entries(sizes)) {
    for (const [lang, schemes] of [['en', ['light']], ['ja', ['dark']]]) {
      for (const scheme of schemes) {
        const page = await open(b, { size, scheme, bypassCSP: true });
        await page.goto(`${process.env.API_URL}/?lang=${lang}`);
        await until('the kiosk', () => page.evaluate(() => document.body.dataset.mode !== 'start'));
        const cut = await page.evaluate(() => [document.documentElement.scrollWidth - innerWidth, document.documentElement.scrollHeight - innerHeight]);
        assert.ok(cut[0] <= 0 && cut[1] <= 0, `${name} ${lang}: ${cut} pixels are cut off`);
        await accessible(page, `kiosk ${name} ${lang} ${scheme}`);
        await page.context().close();
      }
    }
  }
});

for (const path of ['/monitor', '/design']) {
  test(`${path} is accessible`, async () => {
    for (const scheme of ['light', 'dark']) {
      const page = await open(b, { size: { width: 1280, height: 800 }, scheme, bypassCSP: true });
      await page.goto(`${process.env.API_URL}${path}?lang=ja`);
      await page.waitForSelector('h1', { state: 'attached' });
      await accessible(page, path);
      assert.deepEqual(page.problems, []);
      await page.context().close();
    }
  });
}

test('the kiosk is small', async () => {
  const page = await open(b, { size: sizes.kiosk });
  let bytes = 0;
  page.on('response', async (r) => { if (!/live|events/.test(r.url())) bytes += (await r.body().catch(() => '')).length; });
  await page.goto(`${process.env.API_URL}/`);
  await until('the kiosk', () => page.evaluate(() => document.body.dataset.mode !== 'start'));
  console.log(`    ${bytes} bytes before compression; interactive after ${Math.round(await page.evaluate(() => performance.getEntriesByType('navigation')[0].domInteractive))} ms`);
  assert.ok(bytes < 200_000, `${bytes} bytes`);
  await page.context().close();
});

test('an agent that ends is told as such, with another way in', async () => {
  const page = await open(b, { size: sizes.kiosk });
  await page.goto(`${process.env.API_URL}/`);
  await until('the kiosk', () => page.evaluate(() => document.body.dataset.mode !== 'start'));
  await page.context().setOffline(true); // the stream breaks as when the agent ends
  await page.evaluate(() => 0);
  process.kill(Number(process.env.AGENT_PID), 'SIGSTOP');
  try {
    await until('the word', () => page.evaluate(() => document.body.dataset.mode === 'lost'), 60_000);
    assert.ok(await page.isVisible('#other-ways'));
  } finally {
    process.kill(Number(process.env.AGENT_PID), 'SIGCONT');
  }
  await page.context().setOffline(false);
  await until('the kiosk again', () => page.evaluate(() => document.body.dataset.mode !== 'lost'), 60_000);
  await page.context().close();
});
