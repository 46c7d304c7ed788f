// SPDX-License-Identifier: Apache-2.0
// The live page in a real browser, against a running daemon. Started by test_page.py, which stops
// and starts the daemon when this asks for it: a line on stdout, answered by one on stdin.
'use strict';
const assert = require('node:assert/strict');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const readline = require('node:readline');
const {chromium} = require('playwright-core');

const url = process.env.EPLBD_URL;
const kFlags = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
  '--disable-background-networking', '--disable-component-update', '--disable-sync'];

const answers = readline.createInterface({input: process.stdin})[Symbol.asyncIterator]();
async function daemon(order) {
  console.log(order);
  assert.equal((await answers.next()).value, 'done');
}

// The numbers of one answer, once the page has shown them: the next answer is a second away.
async function nextStatus(page) {
  const response = await page.waitForResponse(r => r.url().includes('/api/v1/status') && r.ok());
  const status = await response.json();
  // Where the daemon's own curve has that moment already, no point of it is added.
  await page.waitForFunction(ts => points.some(point => Math.abs(point[0] - ts) < 0.02), status.ts);
  return status;
}

const text = (page, selector) => page.locator(selector).innerText();
const fixed = value => value.toFixed(value < 10 ? 3 : 1);

async function tile(page, name) {
  const tiles = page.locator('#tiles > div');
  for (const one of await tiles.all()) {
    if (await one.locator('dt').innerText() === name) return one.locator('dd').innerText();
  }
  assert.fail(`no figure ${name}`);
}

const cases = {
  async 'shows the numbers of /api/v1/status'(page) {
    const status = await nextStatus(page);
    assert.equal(await text(page, '#deployment'), status.deployment);
    assert.equal(await text(page, '#imbalance'), fixed(status.imbalance));
    assert.equal(await page.title(), `${fixed(status.imbalance)} · ${status.deployment} · eplbd`);
    const legend = await page.locator('#legend li').allInnerTexts();
    for (const [name, value] of [['now', status.imbalance], ['initial placement', status.imbalance_initial],
                                 ['worst layer', status.worst_layer.imbalance], ['best possible', status.imbalance_floor],
                                 ['a layer above this is acted on', status.imbalance_threshold]]) {
      assert.ok(legend.includes(`${name} ${fixed(value)}`), `${name} ${fixed(value)} in ${legend}`);
    }
    // The daemon's own sentences, the verdict in force first, without a scroll on a small laptop.
    await page.setViewportSize({width: 1366, height: 768});
    const names = await page.locator('#facts dt').allInnerTexts();
    assert.deepEqual(names, status.facts.map(fact => fact.name));
    assert.equal(names[0], 'verdict');
    const last = await page.locator('#facts dd').last().boundingBox();
    assert.ok(last.y + last.height <= 768, `the facts end at ${last.y + last.height}`);
    await page.setViewportSize({width: 1280, height: 900});
    assert.ok(status.imbalance < status.imbalance_initial, 'the group was balanced before this test');
    assert.match(await tile(page, 'Placement'), new RegExp(`^v${status.placement.version}\\b`));
    assert.match(await tile(page, 'Workers'), new RegExp(`^${status.workers.filter(w => w.live).length}\\b`));
    assert.match(await text(page, '#pills'), new RegExp(status.mode));
    assert.equal(await text(page, '#link'), 'live');
  },

  async 'shows workers, decisions and GPUs as they are'(page) {
    const status = await nextStatus(page);
    const rows = await page.locator('#workers tr').all();
    assert.equal(rows.length, status.workers.length);
    const names = await Promise.all(rows.map(row => row.locator('td').first().textContent()));
    assert.deepEqual(new Set(names), new Set(status.workers.map(worker => worker.source)));
    // A worker chose a name full of markup: it is text, and nothing ran.
    assert.ok(names.some(name => name.includes('<img')));
    assert.equal(await page.locator('img').count(), 0);

    const decision = page.locator('#decisions tr').first();
    assert.match(await decision.innerText(), new RegExp(status.decisions[0].verdict.replaceAll('_', ' ')));
    assert.equal(await decision.locator('td').nth(2).innerText(), status.decisions[0].detail);
    assert.equal(await page.locator('#decisions tr').count(), status.decisions.length);

    assert.match(await page.locator('#gpus').getAttribute('aria-label'), new RegExp(`Together ${fixed(status.imbalance)}: `));
    const {layers, gpus} = status.topology;
    assert.match(await page.locator('#heat').getAttribute('aria-label'), new RegExp(`^${layers} layers by ${gpus} GPUs`));
  },

  async 'shows which experts went where'(page) {
    const status = await (await page.request.get(`${url}api/v1/status`)).json();  // the page was told before
    assert.ok(status.updates.length > 0);
    const update = status.updates[0], details = page.locator('#updates details').first();
    assert.match(await details.innerText(), new RegExp(`v${update.version}\\b`));
    await details.locator('summary').click();
    await details.locator('.moved').waitFor();
    const shown = await details.locator('dd span').allInnerTexts();
    const expected = update.moved.map(([, expert, from, to]) =>
        `expert ${expert}: ${from < 0 ? 'disk' : `GPU ${from}`} → GPU ${to}`);
    assert.deepEqual([...shown].sort(), expected.sort());
    await nextStatus(page);
    assert.ok(await details.evaluate(node => node.open), 'stays open when the page updates');
  },

  async 'draws what it says'(page) {
    await nextStatus(page);
    for (const id of ['history', 'gpus', 'heat']) {
      const colours = await page.evaluate(name => {
        const canvas = document.getElementById(name);
        const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
        const seen = new Set();
        for (let i = 0; i < pixels.length; i += 4) if (pixels[i + 3] === 255) seen.add(pixels.slice(i, i + 3).join());
        return seen.size;
      }, id);
      assert.ok(colours >= 3, `${id} has ${colours} colours`);
    }
  },

  async 'can be used by keyboard alone'(page) {
    await page.reload();  // a fresh page has the focus at its start
    const status = await nextStatus(page);
    await page.keyboard.press('Tab');
    assert.equal(await page.evaluate(() => document.activeElement.textContent), 'Skip to content');
    const visited = new Set();
    for (let i = 0; i < 20; ++i) {
      await page.keyboard.press('Tab');
      visited.add(await page.evaluate(() => document.activeElement.id || document.activeElement.tagName));
    }
    for (const stop of ['history', 'gpus', 'heat', 'SUMMARY']) assert.ok(visited.has(stop), stop);

    await page.focus('#heat');
    await page.keyboard.press('ArrowRight');
    await page.keyboard.press('ArrowDown');
    const names = status.topology.layer_ids;
    assert.match(await text(page, '#heat-readout'), new RegExp(`^Layer ${names?.length ? names[1] : 1} on GPU 0: `));
    await page.focus('#gpus');
    await page.keyboard.press('End');
    assert.match(await text(page, '#gpus-readout'), new RegExp(`^GPU ${status.topology.gpus - 1}: works [\\d.]+ times the mean, waits `));
    await page.keyboard.press('Escape');
    assert.match(await text(page, '#gpus-readout'), /^Together /);
    await page.focus('#history');
    await page.keyboard.press('ArrowLeft');
    assert.match(await text(page, '#history-readout'), / now, .* worst layer, .* initial placement/);
  },

  async 'fits a phone and follows the colour scheme'(page) {
    const background = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    const light = await background();
    await page.emulateMedia({colorScheme: 'dark'});
    const dark = await background();
    const sum = colour => colour.match(/\d+/g).slice(0, 3).reduce((a, b) => a + Number(b), 0);
    assert.ok(sum(light) > 600 && sum(dark) < 150, `${light} and ${dark}`);
    await page.emulateMedia({colorScheme: 'light'});

    for (const width of [390, 360]) {
      await page.setViewportSize({width, height: 740});
      await nextStatus(page);
      assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), `${width} wide`);
    }
    await page.setViewportSize({width: 1280, height: 900});
  },

  async 'survives a restart of the daemon without a reload'(page) {
    const before = await (await page.request.get(`${url}api/v1/status`)).json();
    const kept = await page.evaluate(() => { window.marker = 1; return points.length; });
    await daemon('stop');
    await page.locator('#gone').waitFor({state: 'visible'});
    assert.match(await text(page, '#gone'), /No answer from the daemon since /);
    assert.equal(await text(page, '#link'), 'gone');
    assert.match(await tile(page, 'Placement'), /^v\d+/);  // what was known stays to be read

    await daemon('start');
    await page.locator('#gone').waitFor({state: 'hidden'});
    const after = await nextStatus(page);
    assert.ok(after.started > before.started);
    assert.match(await text(page, '#link'), /^live again since /);
    assert.match(await tile(page, 'Placement'), new RegExp(`^v${after.placement.version}\\b`));
    assert.equal(await page.evaluate(() => window.marker), 1);
    assert.match(await text(page, '#updates'), new RegExp(`v${before.updates[0].version}\\b`));
    assert.ok(await page.evaluate(() => points.length) > kept, 'the curve from before is kept');
  },
};

async function main() {
  const profile = fs.mkdtempSync(path.join(os.tmpdir(), 'eplbd-chromium-'));
  const browser = await chromium.launchPersistentContext(profile, {
    executablePath: process.env.CHROMIUM || '/usr/bin/chromium', args: kFlags, colorScheme: 'light',
    viewport: {width: 1280, height: 900}});
  let failed = 0;
  try {
    const page = await browser.newPage();
    const wrong = [];
    let expectGone = false;
    page.on('request', request => {
      if (!request.url().startsWith(url) && !request.url().startsWith('data:')) wrong.push(`asks ${request.url()}`);
    });
    page.on('pageerror', error => wrong.push(String(error)));
    page.on('console', message => {
      if (message.type() === 'error' && !(expectGone && message.text().includes('ERR_'))) wrong.push(message.text());
    });
    await page.goto(url);
    for (const [name, check] of Object.entries(cases)) {
      expectGone = name.includes('restart');
      try {
        await check(page);
        assert.deepEqual(wrong.splice(0), []);
        console.error(`ok - ${name}`);
      } catch (error) {
        ++failed;
        console.error(`not ok - ${name}\n${error.stack}`);
      }
    }
  } finally {
    await browser.close();
    fs.rmSync(profile, {recursive: true, force: true, maxRetries: 5});
  }
  process.exit(failed ? 1 : 0);
}
main().catch(error => { console.error(error); process.exit(1); });
