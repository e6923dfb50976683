// Looks at the page of `benthos-kinesis leases serve` in a real browser, says what it sees
// as lines of JSON, and takes pictures into a folder.
//
//   node page.mjs URL FOLDER CHROMIUM WHAT
//
// WHAT is `story`, a group that is resharded and loses a process as browser_test.go does it, or
// the name of a picture of a group that stands still.
import fs from 'node:fs'
import path from 'node:path'
import { chromium } from 'playwright-core'

const [url, folder, executablePath, what] = process.argv.slice(2)
const patience = 60000

// --no-sandbox: CI runs as root, which chromium refuses otherwise. The page is our own.
const browser = await chromium.launch({ executablePath, args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage'] })
const page = await browser.newPage({ viewport: { width: 1280, height: 900 } })
page.setDefaultTimeout(patience)

const say = line => console.log(JSON.stringify(line))
const wrong = []
page.on('console', message => { if (['error', 'warning'].includes(message.type())) wrong.push(message.text()) })
page.on('pageerror', error => wrong.push(String(error)))
const elsewhere = []
page.on('request', request => { if (!request.url().startsWith(url)) elsewhere.push(request.url()) })

async function picture(name) {
  for (const [size, width, height] of [['wide', 1280, 900], ['phone', 390, 844]]) {
    for (const colorScheme of ['light', 'dark']) {
      await page.setViewportSize({ width, height })
      await page.emulateMedia({ colorScheme })
      await page.waitForTimeout(1200) // until it is drawn for that size
      const overflow = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth)
      if (overflow > 0) wrong.push(`${name} is ${overflow} px too wide at ${width} px`)
      fs.mkdirSync(folder, { recursive: true })
      await page.screenshot({ path: path.join(folder, `${name}-${size}-${colorScheme}.png`), fullPage: true })
    }
  }
  await page.setViewportSize({ width: 1280, height: 900 })
}

// look is what stands on the page: the owners of shards, the boxes of the lineage, the kinds of
// events, and the members.
const look = () => page.evaluate(() => ({
  owners: Object.fromEntries([...document.querySelectorAll('.owner[data-section^="owner "]')].map(box => [
    box.querySelector('.who').textContent, [...box.querySelectorAll('tr[data-shard]')].map(row => row.getAttribute('data-shard')).sort()])),
  lives: Object.fromEntries([...document.querySelectorAll('.owner[data-life]:not([data-life=""])')].map(box => [box.querySelector('.who').textContent, box.getAttribute('data-life')])),
  nodes: Object.fromEntries([...document.querySelectorAll('#lineage rect[data-node]')].map(box => [box.getAttribute('data-node'), box.getAttribute('class').split(' ')[0]])),
  kinds: [...document.querySelectorAll('#events li')].map(item => item.getAttribute('data-kind')),
  counts: Object.fromEntries([...document.querySelectorAll('#counts [data-count]')].map(box => [box.getAttribute('data-count'), box.querySelector('dd').textContent])),
  banner: document.querySelector('#banner').hidden ? '' : document.querySelector('#banner').textContent,
  stale: document.body.classList.contains('stale'),
}))

// until waits for what is seen to be so, and says it.
async function until(step, is) {
  const end = Date.now() + patience
  for (;;) {
    const seen = await look()
    if (is(seen)) return say({ step, ...seen })
    if (Date.now() > end) {
      await page.screenshot({ path: path.join(folder, `failed-${step}.png`), fullPage: true }).catch(() => {})
      say({ step: 'failed', wanted: step, wrong, ...seen })
      process.exit(1)
    }
    await page.waitForTimeout(100)
  }
}

const sizes = seen => Object.values(seen.owners).map(shards => shards.length)
const alive = seen => Object.values(seen.lives).filter(life => life === 'alive').length
const kinds = (seen, kind) => seen.kinds.filter(k => k === kind).length

// still is one picture of a group to which nothing happens.
async function still() {
  await page.waitForSelector('#lineage rect[data-node]')
  await page.waitForTimeout(2000)
  await picture(what)
  await page.setViewportSize({ width: 1280, height: 900 })
  const all = page.locator('button[data-all]').first()
  const open = page.locator('.owner[open] tr[data-shard]')
  const before = await open.count()
  if (await all.count()) {
    await all.click()
    await page.waitForFunction(n => document.querySelectorAll('.owner[open] tr[data-shard]').length > n, before)
    await all.page().reload() // what was asked for is not kept
    await page.waitForSelector('#lineage rect[data-node]')
  }
  if (await page.title() === 'broken') wrong.push('a text of the table has run')
  say({ step: what, ...await look(), wrong: [...wrong], elsewhere })
}

async function story() {
  await until('shared', seen => alive(seen) === 3 && sizes(seen).filter(n => n === 2).length === 3 && kinds(seen, 'handed over') > 0)
  await until('resharded', seen => kinds(seen, 'split') === 2 && kinds(seen, 'merge') === 1 && Object.values(seen.nodes).filter(c => c === 'done').length === 3 && seen.counts['shards read'] === '6')
  await picture('resharded')
  say({ step: 'kill' })
  await until('dying', seen => Object.values(seen.lives).some(life => ['late', 'dead', 'evicted'].includes(life)))
  await page.screenshot({ path: path.join(folder, 'dying.png'), fullPage: true })
  await until('taken over', seen => alive(seen) === 2 && Object.values(seen.lives).includes('evicted') && seen.counts['shards read'] === '6')
  await picture('killed')

  // By the keyboard: the first shard of the first owner.
  await page.locator('.owner[data-life="alive"] button[data-explain]').first().focus()
  await page.keyboard.press('Enter')
  await page.waitForSelector('#explain[open] li[data-code="read"]')
  await picture('explained')
  await page.keyboard.press('Escape')
  await page.waitForSelector('#explain:not([open])', { state: 'attached' })

  say({ step: 'deny' })
  await until('denied', seen => seen.stale && seen.banner.startsWith('The group cannot be read since'))
  await picture('denied')
  say({ step: 'allow' })
  await until('allowed', seen => !seen.stale && seen.banner === '')
  say({ step: 'end', wrong: [...wrong], elsewhere })
  await until('lost', seen => seen.stale && seen.banner.startsWith('This page has lost its server'))
}

fs.mkdirSync(folder, { recursive: true })
await page.goto(url)
await (what === 'story' ? story() : still())
await browser.close()
