// Draws what the server has read. Texts of the table come into the page by textContent and
// attributes alone, never as markup.
'use strict'

// Above this many shards the rows of an owner are the worst ones, until all are asked for,
// and sections are closed at first.
const many = 200
const worstRows = 25
// So many columns of the lineage are drawn, the newest.
const generations = 12
const shownEvents = 200

const seen = {
  reading: null, // the last answer of /api/view
  readAt: 0, // by this page's own clock, when it was read; 0 for never
  failed: '', // why the server does not answer
  history: new Map(), // of lag by stream and shard, slots from `from` to `to`
  slots: 360, // that are kept
  resolution: 10, // of a slot, in seconds
  to: -1,
  newest: 0, // event
  events: [],
  all: new Set(), // owners all of whose shards are shown
  open: new Map(), // owners whose sections somebody has opened or closed
}

const $ = id => document.getElementById(id)
const keyOf = shard => shard.stream + '\n' + shard.shard
const now = () => performance.now() / 1000

// element makes an element with attributes and children; a text is one.
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name)
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value)
  made.append(...children)
  return made
}

function svg(name, attributes = {}, ...children) {
  const made = document.createElementNS('http://www.w3.org/2000/svg', name)
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value)
  made.append(...children)
  return made
}

// put replaces what is in a place, unless it looks the same: a new element would lose the
// focus and the place where somebody has scrolled to.
function put(place, ...children) {
  const copy = place.cloneNode(false)
  copy.append(...children)
  if (copy.innerHTML === place.innerHTML) return false
  const focused = place.contains(document.activeElement) ? document.activeElement.getAttribute('data-key') : null
  place.replaceChildren(...copy.childNodes)
  if (focused !== null) {
    for (const one of place.querySelectorAll('[data-key]')) {
      if (one.getAttribute('data-key') === focused) { one.focus({ preventScroll: true }); break }
    }
  }
  return true
}

const plural = (n, one) => n + ' ' + one + (n === 1 ? '' : 's')

function duration(seconds) {
  if (seconds === undefined || seconds === null) return '–'
  if (seconds > 0 && seconds < 2) return Math.round(seconds * 10) / 10 + ' s'
  if (seconds < 100) return Math.round(seconds) + ' s'
  if (seconds < 6000) return Math.round(seconds / 60) + ' min'
  if (seconds < 172800) return Math.round(seconds / 3600) + ' h'
  return Math.round(seconds / 86400) + ' d'
}

const clock = at => new Date(at).toLocaleTimeString([], { hour12: false })

// short is a shard as the commands take it.
function short(shard) {
  const found = /^shardId-(\d{12})$/.exec(shard)
  return found ? String(Number(found[1])) : shard
}

const labelOf = id => seen.reading.labels[id] || '?'

// colourOf is the colour of an owner: that of its label, so that it stays. Neighbours are
// far apart, and all are light enough for dark text.
function colourOf(id) {
  let n = 0
  for (const letter of labelOf(id)) n = n * 26 + letter.charCodeAt(0) - 64
  return 'hsl(' + Math.round(205 + n * 137.5) % 360 + ' 62% 68%)'
}

const doneStates = ['finished', 'cut', 'beyond', 'trimmed']
const isDone = shard => doneStates.includes(shard.state) || shard.state === 'not listed' && !shard.owner

// toneOf is how much a state is worth looking at.
function toneOf(shard) {
  if (isDone(shard)) return 'done'
  if (shard.state === 'reading') return shard.owner_life === 'alive' ? 'good' : shard.owner_life === 'unproven' ? 'done' : 'warn'
  if (shard.state === 'waiting') return 'done'
  return shard.state === 'handed over' ? 'warn' : 'bad'
}

function stateText(shard) {
  if (shard.state === 'reading' && shard.owner_life !== 'alive') return 'reading, owner ' + shard.owner_life
  return shard.state
}

const lifeTones = { alive: 'good', unproven: 'done', late: 'warn', dead: 'bad', gone: 'bad', left: 'done', evicted: 'bad' }

// Drawing

function draw() {
  const reading = seen.reading
  drawAge()
  if (!reading) return
  document.title = (reading.group || reading.table) + ' – leases'
  $('table').textContent = reading.table
  $('group').textContent = reading.group ? 'group ' + reading.group : ''
  if (!reading.view) return
  const view = reading.view
  const errors = view.streams.filter(s => s.error).map(s => element('p', {}, 'Stream ' + s.name + ' cannot be listed, so lineage and lag are not known: ' + s.error))
  put($('warning'), ...errors)
  $('warning').hidden = errors.length === 0
  drawCounts(reading.counts)
  drawOwners(view)
  drawLineage(view)
}

// drawAge says how old what is shown is, once a second: nothing else may look fresh when
// the server or the table has stopped to answer.
function drawAge() {
  const reading = seen.reading
  const age = now() - seen.readAt
  const stale = !reading || !reading.view || age > reading.stale_after_seconds || Boolean(reading.error) || seen.failed !== ''
  document.body.classList.toggle('stale', stale && Boolean(seen.failed || reading))
  let banner = ''
  if (seen.failed) banner = 'This page has lost its server: ' + seen.failed + '. '
  else if (reading && reading.error) banner = 'The group cannot be read since ' + clock(reading.error_since) + ': ' + reading.error + '. '
  else if (reading && reading.view && stale) banner = 'The group was not read for a while. '
  if (banner && reading) banner += reading.view ? 'What is shown is ' + duration(Math.round(age)) + ' old, and may not be so any more.' : 'Nothing is known of it yet.'
  if ($('banner').textContent !== banner) $('banner').textContent = banner
  $('banner').hidden = banner === ''
  if (reading && reading.view) {
    $('age').textContent = (stale ? 'STALE: read at ' : 'read at ') + clock(reading.view.at) + ', ' + duration(Math.round(age)) + ' ago, every ' + duration(reading.interval_seconds)
  }
}

function drawCounts(counts) {
  const m = counts.members
  const one = (name, value, tone = '') => element('div', { class: value === 0 ? '' : tone, 'data-count': name }, element('dt', {}, name), element('dd', {}, String(value)))
  const boxes = [
    one('members alive', m.alive || 0), one('late', m.late || 0, 'warn'), one('dead', m.dead || 0, 'bad'),
    one('shards read', counts.read), one('owner late', counts.late, 'warn'), one('not read', counts.unread, 'bad'),
    one('wait for parents', counts.waiting), one('done', counts.done),
    one('worst lag', duration(counts.worst_lag_seconds)),
  ]
  if (m.unproven) boxes.splice(1, 0, one('not proven yet', m.unproven))
  put($('counts'), ...boxes)
}

// drawOwners shows a section for each owner, those in trouble first, and at the end what
// nobody owns and who has gone.
function drawOwners(view) {
  const shards = view.streams.flatMap(s => s.shards)
  const byOwner = new Map(view.members.map(m => [m.id, []]))
  const free = []
  const finished = []
  for (const shard of shards) {
    if (isDone(shard)) finished.push(shard)
    else if (!shard.owner) free.push(shard)
    else if (byOwner.has(shard.owner)) byOwner.get(shard.owner).push(shard)
    else byOwner.set(shard.owner, [shard])
  }
  const large = shards.length > many
  const lives = new Map(view.members.map(m => [m.id, m]))
  const order = ['dead', 'gone', 'late', 'unproven', 'alive']
  const lifeOf = id => lives.has(id) ? lives.get(id).life : byOwner.get(id)[0].owner_life || 'gone'
  const owners = [...byOwner.keys()].sort((a, b) =>
    order.indexOf(lifeOf(a)) - order.indexOf(lifeOf(b)) || labelOf(a).length - labelOf(b).length || (labelOf(a) < labelOf(b) ? -1 : 1))
  const several = view.streams.length > 1
  const sections = []
  if (free.length) sections.push({ key: 'free', title: 'Nobody', life: '', shards: free, open: free.some(s => toneOf(s) === 'bad') || !large })
  for (const id of owners) {
    const member = lives.get(id)
    const life = lifeOf(id)
    let note = ''
    if (!member) note = byOwner.get(id).some(s => s.foreign_owner) ? 'built-in input' : 'is no member'
    else if (life !== 'alive') note = 'unchanged for ' + duration(member.still_seconds) + (life === 'dead' ? ', may be evicted' : ' of ' + duration(member.lease_period_seconds))
    sections.push({ key: 'owner ' + id, id, title: id, life, note, shards: byOwner.get(id), open: !large || !['alive', 'unproven'].includes(life) })
  }
  for (const gone of seen.reading.departed) {
    sections.push({ key: 'gone ' + gone.id, id: gone.id, title: gone.id, life: gone.how, note: 'gone since ' + clock(gone.at), shards: null })
  }
  if (finished.length) sections.push({ key: 'done', title: 'Done', life: '', shards: finished, open: false, done: true })

  const place = $('owners')
  const old = new Map([...place.children].map(child => [child.getAttribute('data-section'), child]))
  const wanted = sections.map(s => drawOwner(s, old.get(s.key), several))
  if (wanted.length !== place.children.length || wanted.some((one, i) => place.children[i] !== one)) place.replaceChildren(...wanted)
}

function drawOwner(section, old, several) {
  const box = old || element('details', { class: 'owner', 'data-section': section.key }, element('summary'), element('div'))
  if (!old) {
    box.open = seen.open.has(section.key) ? seen.open.get(section.key) : Boolean(section.open)
    box.querySelector('summary').addEventListener('click', () => {
      seen.open.set(section.key, !box.open)
      setTimeout(draw)
    })
  }
  if (section.id && section.shards) box.style.setProperty('--owner', colourOf(section.id))
  box.setAttribute('data-life', section.life)
  const parts = []
  if (section.id) parts.push(element('span', { class: 'badge' }, labelOf(section.id)))
  parts.push(element('span', { class: 'who' }, section.title))
  if (section.life) parts.push(element('span', { class: 'state-' + (lifeTones[section.life] || 'done') }, section.life))
  if (section.shards) {
    parts.push(element('span', {}, plural(section.shards.length, 'shard')))
    const lags = section.shards.filter(s => s.lag_seconds !== undefined).map(s => s.lag_seconds)
    if (lags.length && !section.done) parts.push(element('span', {}, 'worst lag ' + duration(Math.max(...lags))))
  }
  if (section.note) parts.push(element('span', { class: 'faint' }, section.note))
  put(box.querySelector('summary'), ...parts)

  const body = box.lastElementChild
  if (!box.open) body.replaceChildren()
  else if (!section.shards || !section.shards.length) put(body, element('p', { class: 'none' }, section.shards ? 'It has no shard.' : 'It is in the group no more.'))
  else put(body, ...rowsOf(section, several))
  return box
}

const severity = { bad: 0, warn: 1, good: 2, done: 3 }

function rowsOf(section, several) {
  let shown = section.shards
  const parts = []
  if (shown.length > worstRows * 2 && !seen.all.has(section.key)) {
    shown = [...shown].sort((a, b) => severity[toneOf(a)] - severity[toneOf(b)] || (b.lag_seconds || 0) - (a.lag_seconds || 0)).slice(0, worstRows)
    parts.push(element('button', { class: 'more', 'data-all': section.key, 'data-key': 'all ' + section.key }, 'Show all ' + section.shards.length + ', not the worst ' + worstRows))
  }
  const head = element('tr', {}, element('th', { scope: 'col' }, 'Shard'), element('th', { scope: 'col' }, 'State'), element('th', { scope: 'col', class: 'number' }, 'Lag'),
    element('th', { scope: 'col' }, historyTitle()), element('th', { scope: 'col', class: 'wide' }, 'Parents'), element('th', { scope: 'col', class: 'wide' }, 'Acknowledged up to'))
  const rows = shown.map(shard => element('tr', { 'data-shard': shard.shard, 'data-stream': shard.stream },
    element('td', {}, element('button', { 'data-explain': keyOf(shard), 'data-key': keyOf(shard), 'aria-haspopup': 'dialog', title: 'Why is it ' + shard.state + '?' }, (several ? shard.stream + ':' : '') + short(shard.shard))),
    element('td', {}, element('span', { class: 'state-' + toneOf(shard) }, stateText(shard))),
    element('td', { class: 'number' }, isDone(shard) ? '–' : duration(shard.lag_seconds)),
    element('td', { class: 'spark' }, sparkline(shard)),
    element('td', { class: 'wide' }, (shard.parents || []).map(short).join(', ') || '–'),
    element('td', { class: 'wide' }, shard.sequence ? '…' + shard.sequence.slice(-12) : '–')))
  parts.unshift(element('div', { class: 'scroll' }, element('table', {}, element('caption', {}, 'Shards of ' + section.title), element('thead', {}, head), element('tbody', {}, ...rows))))
  return parts
}

// width is how many slots a line is wide: as many as there are, five minutes at least and an
// hour at most.
const width = () => Math.min(Math.max(seen.to + 1, 30), seen.slots)

function historyTitle() {
  return width() === seen.slots ? 'Last hour' : 'Last ' + Math.ceil(width() * seen.resolution / 60) + ' min'
}

// sparkline draws the history of the lag. Where it was not known there is a gap.
function sparkline(shard) {
  const lag = seen.history.get(keyOf(shard))
  if (!lag || !lag.some(v => v >= 0)) return ''
  const most = Math.max(...lag, 1)
  const start = width() - lag.length
  let line = ''
  let area = ''
  let begun = -1
  for (let i = 0; i <= lag.length; i++) {
    const known = i < lag.length && lag[i] >= 0
    const x = start + i
    if (!known) {
      if (begun >= 0) area += 'L' + (x - 1) + ' 26L' + (begun - 1) + ' 26Z'
      begun = -1
      continue
    }
    const y = (24 - 22 * lag[i] / most).toFixed(1)
    line += (begun < 0 ? 'M' + (x - 1) + ' ' + y + 'L' : 'L') + x + ' ' + y
    area += begun < 0 ? 'M' + (x - 1) + ' 26L' + (x - 1) + ' ' + y + 'L' + x + ' ' + y : 'L' + x + ' ' + y
    if (begun < 0) begun = x
  }
  const words = 'Lag, at most ' + duration(most)
  return svg('svg', { viewBox: '0 0 ' + width() + ' 26', preserveAspectRatio: 'none', role: 'img', 'aria-label': words },
    svg('title', {}, words), svg('path', { class: 'area', d: area }), svg('path', { d: line }))
}

// drawLineage draws the hash keys of each stream from top to bottom and the generations from
// left to right. A shard that is open reaches to the right edge. Where shards are a few
// pixels high, owners side by side would be mere noise: the colours are of states there.
function drawLineage(view) {
  const drawn = []
  const owners = new Set()
  for (const stream of view.streams) {
    drawn.push(element('h3', {}, stream.name))
    const shards = stream.shards.filter(s => s.first_key !== undefined && s.last_key !== undefined)
    if (!shards.length) drawn.push(element('p', { class: 'faint' }, 'It cannot be drawn: the stream lists no shards.'))
    else drawn.push(...lineageOf(stream, shards, owners))
  }
  put($('lineage'), ...drawn)
  const legend = [...owners].sort((a, b) => labelOf(a).length - labelOf(b).length || (labelOf(a) < labelOf(b) ? -1 : 1)).slice(0, 40).map(id => {
    const box = element('i')
    const item = element('li', { title: id }, box, labelOf(id) + ' ' + (id.length > 12 ? id.slice(0, 8) + '…' : id))
    box.style.setProperty('--owner', colourOf(id))
    return item
  })
  // Of states alone where no owner has a colour.
  for (const [kind, text] of [['read', 'read'], ['unread', 'not read, or by an owner that is late'], ['waiting', 'waits for its parents'], ['done', 'finished']]) if (kind !== 'read' || !legend.length) legend.push(element('li', {}, element('i', { class: kind }), text))
  put($('legend'), ...legend)
}

// fraction of the key space, by the first 13 of the 39 digits of 2^128.
const fraction = key => Number(BigInt(key) >> 80n) / 2 ** 48

function lineageOf(stream, shards, owners) {
  const byId = new Map(shards.map(s => [s.shard, s]))
  const depths = new Map()
  // Parents are listed before children: their numbers are smaller.
  for (const shard of [...shards].sort((a, b) => (a.shard < b.shard ? -1 : 1))) {
    const parents = (shard.parents || []).filter(id => byId.has(id))
    depths.set(shard.shard, parents.length ? 1 + Math.max(...parents.map(id => depths.get(id) || 0)) : 0)
  }
  const deepest = Math.max(...depths.values())
  const first = Math.max(deepest - generations + 1, 0)
  const columns = deepest - first + 1
  const narrow = document.documentElement.clientWidth < 640
  const width = narrow ? 360 : 1200
  const open = shards.filter(s => !s.closed).length
  const height = Math.min(Math.max(open * 30, 90), 640)
  const step = width / columns
  const crowded = height / open < 6
  const pattern = 'hatch-' + [...stream.name].map(c => c.charCodeAt(0).toString(16)).join('').slice(-60)
  const picture = svg('svg', { viewBox: `0 0 ${width} ${height}`, role: 'img', 'aria-label': `Lineage of ${stream.name}: ${plural(shards.length, 'shard')}, ${open} open, ${plural(deepest + 1, 'generation')}. The tables above have the same.` },
    svg('defs', {}, svg('pattern', { id: pattern, width: 8, height: 8, patternUnits: 'userSpaceOnUse', patternTransform: 'rotate(45)' },
      svg('rect', { class: 'hatch', width: 8, height: 8 }), svg('line', { class: 'hatch-line', x1: 0, y1: 0, x2: 0, y2: 8 }))))
  const last = [] // what must not be drawn over
  const texts = []
  for (const shard of shards) {
    const depth = depths.get(shard.shard)
    if (depth < first) continue
    const children = (shard.children || []).filter(id => depths.has(id)).map(id => depths.get(id))
    const end = children.length ? Math.min(...children) : columns + first
    const x = (depth - first) * step
    const y = fraction(shard.first_key) * height
    const w = (end - depth) * step
    const h = fraction(shard.last_key) * height - y
    const tone = toneOf(shard)
    const unread = tone === 'bad' || tone === 'warn'
    const kind = isDone(shard) ? 'done' : shard.state === 'waiting' ? 'waiting' : unread ? 'unread' : 'read'
    if (!crowded && (kind === 'read' || shard.owner && kind === 'unread')) owners.add(shard.owner)
    const fill = tone === 'bad' ? `url(#${pattern})` : shard.owner && kind !== 'done' ? colourOf(shard.owner) : 'none'
    const words = `${stream.name}:${short(shard.shard)}, ${stateText(shard)}${shard.owner ? ', owner ' + labelOf(shard.owner) + ' ' + shard.owner : ''}${shard.lag_seconds !== undefined && !isDone(shard) ? ', lag ' + duration(shard.lag_seconds) : ''}`
    const box = { class: kind + (crowded ? ' crowded' : ''), x: x.toFixed(2), y: y.toFixed(2), width: Math.max(w - 1, 1).toFixed(2), height: Math.max(h, crowded && unread ? 2 : .5).toFixed(2), 'data-explain': keyOf(shard), 'data-node': shard.shard }
    if (!crowded && (kind === 'read' || kind === 'unread')) box.fill = fill
    const drawn = svg('rect', box, svg('title', {}, words))
    if (unread) last.push(drawn)
    else picture.append(drawn)
    if (h >= 14 && w >= 30) {
      const owner = shard.owner && kind !== 'done' ? ' ' + labelOf(shard.owner) : ''
      texts.push(svg('text', { x: (x + 6).toFixed(2), y: (y + h / 2 + 4).toFixed(2), class: kind === 'read' || kind === 'unread' && tone !== 'bad' ? '' : 'plain' },
        short(shard.shard) + owner + (w >= 120 && kind !== 'read' ? ' ' + shard.state : '')))
    }
  }
  picture.append(...last, ...texts)
  const parts = [picture]
  if (crowded) parts.push(element('p', { class: 'faint' }, 'These are too many to tell owners apart: the colours are those of states.'))
  if (first > 0) parts.push(element('p', { class: 'faint' }, `${plural(first, 'earlier generation')} not drawn.`))
  return parts
}

const kindTones = {
  joined: 'good', alive: 'good', late: 'warn', dead: 'bad', evicted: 'bad', left: 'done', claimed: 'good', 'handed over': 'good', 'taken over': 'warn',
  released: 'done', finished: 'done', 'moved back': 'warn', removed: 'done',
}

function drawEvents() {
  const name = id => (id in seen.reading.labels ? seen.reading.labels[id] + ' (' + id + ')' : id)
  const items = seen.events.slice(-shownEvents).reverse().map(e => {
    const at = new Date(e.at)
    let what
    if (e.member) what = name(e.member) + ' ' + e.what
    else {
      what = e.count ? plural(e.count, 'shard') + ' of ' + e.stream + ', ' + e.shards.slice(0, 3).map(short).join(', ') + ' and others: ' : e.stream + ':' + short(e.shard) + ' '
      if (e.from && e.to) what += 'from ' + name(e.from) + ' to ' + name(e.to)
      else if (e.to) what += 'by ' + name(e.to)
      else what += e.what.replaceAll(/shardId-\d{12}/g, short)
    }
    return element('li', { 'data-kind': e.kind }, element('time', { datetime: at.toISOString() }, clock(at)), element('span', { class: 'kind state-' + (kindTones[e.kind] || 'done') }, e.kind), element('span', { class: 'what' }, what))
  })
  if (!items.length) items.push(element('li', {}, element('span'), element('span'), element('span', { class: 'what' }, 'Nothing since ' + clock(seen.reading.started) + '.')))
  put($('events'), ...items)
}

// Explaining

async function explain(key) {
  const [stream, shard] = key.split('\n')
  const dialog = $('explain')
  $('explain-title').textContent = stream + ':' + short(shard)
  put($('explain-facts'))
  put($('explain-reasons'), element('li', {}, 'Asking…'))
  if (!dialog.open) dialog.showModal()
  let reasons
  try {
    const e = await ask('api/explain?' + new URLSearchParams({ stream, shard }))
    $('explain-title').textContent = `${stream}:${short(shard)} is ${e.state}`
    reasons = e.reasons.map(r => {
      const item = element('li', { 'data-code': r.code }, r.text)
      if (r.remedy) item.append(element('div', { class: 'remedy' }, 'What to do: ' + r.remedy))
      return item
    })
  } catch (error) {
    reasons = [element('li', {}, 'It cannot be said: ' + error.message)]
  }
  put($('explain-reasons'), ...reasons)
  const found = seen.reading.view.streams.flatMap(s => s.shards).find(s => keyOf(s) === key)
  if (!found) return
  const facts = [['Shard', found.shard], ['Owner', found.owner && labelOf(found.owner) + ' ' + found.owner], ['Lag', isDone(found) ? '' : duration(found.lag_seconds)], ['Acknowledged up to', found.sequence],
    ['Parents', (found.parents || []).map(short).join(', ')], ['Children', (found.children || []).map(short).join(', ')], ['As of', clock(seen.reading.view.at)]]
  put($('explain-facts'), ...facts.filter(f => f[1]).flatMap(([name, value]) => [element('dt', {}, name), element('dd', {}, value)]))
}

document.addEventListener('click', event => {
  const asked = event.target.closest('[data-explain]')
  if (asked) explain(asked.getAttribute('data-explain'))
  const all = event.target.closest('[data-all]')
  if (all) {
    seen.all.add(all.getAttribute('data-all'))
    draw()
  }
})

// Asking

async function ask(path, take) {
  const answer = await fetch(path, { cache: 'no-cache', signal: AbortSignal.timeout(10000) })
  if (!answer.ok) throw new Error((await answer.text()).trim() || 'status ' + answer.status)
  if (take) take(answer)
  return answer.json()
}

async function refresh() {
  try {
    let age = null
    const reading = await ask('api/view', answer => { age = answer.headers.get('Reading-Age') })
    if (seen.reading && seen.reading.started !== reading.started) location.reload() // another version, perhaps
    if (age !== null) seen.readAt = now() - Number(age)
    seen.reading = reading
    const history = await ask('api/history?after=' + Math.max(seen.to - 1, -1))
    remember(history)
    const events = await ask('api/events?after=' + seen.newest)
    seen.events = seen.events.concat(events.events).slice(-1000)
    seen.newest = events.newest
    seen.failed = ''
    draw()
    drawEvents()
  } catch (error) {
    seen.failed = error.name === 'TimeoutError' ? 'it does not answer' : error.message
    drawAge()
  }
  setTimeout(refresh, seen.reading ? Math.min(Math.max(seen.reading.interval_seconds, .5), 10) * 1000 : 1000)
}

// remember adds the slots of an answer to those that are there. Shards that the answer has
// no more are forgotten, and what is older than an hour.
function remember(history) {
  const known = new Map()
  for (const [stream, shards] of Object.entries(history.lag)) {
    for (const [shard, lag] of Object.entries(shards)) {
      const key = stream + '\n' + shard
      let old = seen.history.get(key) || []
      // Of those that are there, the ones before the first of the answer.
      const keep = old.length - Math.max(seen.to - history.from + 1, 0)
      old = old.slice(0, Math.max(keep, 0))
      known.set(key, old.concat(lag).slice(-history.slots))
    }
  }
  seen.history = known
  seen.to = history.to
  seen.slots = history.slots
  seen.resolution = history.resolution_seconds
}

setInterval(drawAge, 1000)
refresh()
