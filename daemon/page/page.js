// Asks /api/v1/status once a second and shows it. Everything that came from outside is put in as
// text, never as markup: workers choose their own names.
const kPollMs = 1000, kPatienceMs = 4000, kKeepSeconds = 3600, kWorkersShown = 200, kUpdatesShown = 20;
const $ = id => document.getElementById(id);
const charts = {history: new HistoryChart(), gpus: new GpuChart(), heat: new HeatChart()};
let points = [];      // as HistoryChart has them, oldest first
let events = [];      // {ts, kind, text}, oldest first
let answeredAt = 0;   // our clock
let startedAt = null; // the daemon's, of the process we heard last

function element(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) node.setAttribute(name, value);
  node.append(...children.map(child => child instanceof Node ? child : String(child)));
  return node;
}
const newest = () => points.at(-1)?.[0] || 0;
const cell = (text, numeric) => element('td', numeric ? {class: 'n'} : {}, text);
const pill = (text, kind = '') => element('span', {class: 'pill ' + kind}, text);
const count = n => n == null ? '–' : n.toLocaleString();
const plural = (n, word) => `${count(n)} ${word}${n === 1 ? '' : 's'}`;
const signed = x => (x > 0 ? '+' : x < 0 ? '−' : '±') + Math.abs(x).toFixed(3);
const compact = n => n == null ? '–'
    : Intl.NumberFormat(undefined, {notation: 'compact', maximumFractionDigits: 1}).format(n);

function duration(seconds) {
  if (seconds == null) return '–';
  if (seconds < 1) return Math.round(seconds * 1000) + ' ms';
  if (seconds < 10) return seconds.toFixed(1) + ' s';
  if (seconds < 120) return Math.round(seconds) + ' s';
  if (seconds < 7200) return Math.round(seconds / 60) + ' min';
  if (seconds < 172800) return Math.round(seconds / 3600) + ' h';
  return Math.round(seconds / 86400) + ' days';
}

// Replaces what `node` holds only when it would differ: no lost selection, no needless layout.
function fill(node, key, build) {
  const text = JSON.stringify(key);
  if (node.dataset.key === text) return;
  node.dataset.key = text;
  node.replaceChildren(...build());
}

function showHeader(s) {
  $('deployment').textContent = s.deployment;
  document.title = `${ratio(s.imbalance)} · ${s.deployment} · eplbd`;
  fill($('pills'), [s.mode, s.paused, s.paused_until, s.leader, s.gpus_down], () => {
    const out = [pill(s.mode, s.mode === 'active' ? 'good' : '')];
    if (s.paused) out.push(pill(s.paused_until ? `paused until ${clock(s.paused_until)}` : 'paused', 'warn'));
    if (!s.leader) out.push(pill('standby'));
    if (s.gpus_down?.length) out.push(pill(`${plural(s.gpus_down.length, 'GPU')} down`, 'warn'));
    return out;
  });
  const wrong = [...(s.problems || []), ...(s.waiting_for ? [s.waiting_for] : [])];
  $('problems').hidden = !wrong.length;
  $('problems').textContent = wrong.join(' · ');
  $('endpoints').textContent = `counts: ${s.endpoints.counts.join(' ')} · placements: ${s.endpoints.placements.join(' ')}`;
  $('program').textContent = `eplbd ${s.program_version || ''}, up ${duration(s.ts - s.started)}`;
}

function sentence(s) {
  if (s.imbalance == null) {
    return s.workers.some(w => w.live) ? 'No tokens in the window: nothing to balance.'
        : `No worker sends counts. They connect to ${s.endpoints.counts.join(' ')} and take placements from ` +
          `${s.endpoints.placements.join(' ')}; eplbctl check-worker tells what arrives.`;
  }
  const more = value => `${((value - 1) * 100).toFixed(value < 1.1 ? 1 : 0)} %`;
  let text = `The slowest GPUs take ${more(s.imbalance)} longer than the mean`;
  if (s.imbalance_initial) text += `; with the initial placement it would be ${more(s.imbalance_initial)}`;
  return text + '.';
}

// The daemon's own sentences, as eplbctl shows them. Where it is known when, the clock time too.
function showFacts(s) {
  const facts = s.facts || [];
  fill($('facts'), [facts, s.next?.possible_at], () => facts.map(({name, text}) => {
    const when = name === 'next update' && s.next?.possible_at ? `, at ${clock(s.next.possible_at)}` : '';
    const said = [text + when];
    if (name === 'verdict') {
      const verdict = text.split(/[: ]/, 1)[0];
      said.splice(0, 1, pill(verdict.replaceAll('_', ' '), kVerdictKind[verdict]), text.slice(verdict.length).replace(/^:/, ''));
    }
    return element('div', {}, element('dt', {}, name), element('dd', {}, ...said));
  }));
}

// A colour for each line that there is, with its value now.
function showLegend(s, now) {
  const rows = [...kSeries].reverse().filter(one => now[one.column]).map(one => ({...one, value: now[one.column]}));
  rows.push({...kThreshold, value: s.imbalance_threshold});
  fill($('legend'), rows, () => rows.map(({name, value, colour: key, dash}) =>
      element('li', {style: `--key: var(${key})`, class: dash.length ? 'dashed' : ''}, name + ' ', element('b', {}, ratio(value)))));
}

function showImbalance(s) {
  const worst = s.worst_layer?.imbalance;
  $('imbalance').textContent = ratio(s.imbalance);
  $('imbalance').className = 'big ' + (s.imbalance == null ? '' : worst > s.imbalance_threshold ? 'warn' : 'good');
  $('say').textContent = sentence(s);
  const now = [s.ts, s.imbalance, s.imbalance_initial, worst, s.imbalance_measured, s.imbalance_floor, s.imbalance_would_be];
  showLegend(s, now);
  // The daemon's own history fills what we did not see; ours outlives its restarts.
  const known = newest();
  points.push(...s.history.filter(p => p[0] > known + 0.01));
  if (s.ts > newest() + 0.01) points.push(now);
  points = points.filter(p => p[0] > s.ts - kKeepSeconds);
  events.push(...s.events.filter(event => event.ts > known));
  events = events.filter(event => event.ts > s.ts - kKeepSeconds);
  charts.history.show(points, s.imbalance_threshold, events);
}

function showTiles(s) {
  const p = s.placement, live = s.workers.filter(w => w.live), behind = live.filter(w => w.behind).length;
  const saved = s.imbalance && s.imbalance_initial ? 1 - s.imbalance / s.imbalance_initial : null;
  const tiles = [
    ['Placement', `v${p.version}`, p.version === 0 ? 'the initial one' : p.applied ? `${p.reason}, applied` : `${p.reason}, not applied yet`],
    ['Decided', p.version && p.ts ? duration(Math.max(0, s.ts - p.ts)) + ' ago' : '–', p.version && p.ts ? new Date(p.ts * 1000).toLocaleString([], {hourCycle: 'h23'}) : ''],
    ['Less time of the slowest', saved == null ? '–' : `${(saved * 100).toFixed(0)} %`, 'against the initial placement'],
    ['Against the one before', s.gain_realised == null ? '–' : signed(-s.gain_realised), 'imbalance, on the load since'],
    ['Workers', count(live.length), behind ? `${behind} behind` : live.length ? 'all on this placement' : 'none heard'],
    ['Load window', `${compact(s.tokens)}`, `tokens, half-life ${duration(s.half_life_seconds)}`],
  ];
  fill($('tiles'), tiles, () => tiles.map(([name, value, note]) =>
      element('div', {}, element('dt', {}, name), element('dd', {}, value, element('small', {}, note)))));
}

function showWorkers(s) {
  const rank = w => w.live ? (w.behind ? 0 : 2) : 1;  // whoever needs a look comes first
  const all = [...s.workers].sort((a, b) => rank(a) - rank(b) || a.source.localeCompare(b.source, undefined, {numeric: true}));
  const live = all.filter(w => w.live).length, behind = all.filter(w => w.live && w.behind).length;
  $('workers-sum').textContent = all.length ? `${live} live, ${behind} behind, ${all.length - live} silent` : 'none heard yet';
  const shown = all.slice(0, kWorkersShown);
  $('workers').replaceChildren(...shown.map(w => element('tr', {},
      cell(w.source), element('td', {}, w.live ? w.behind ? pill('behind', 'warn') : pill('live', 'good') : pill('silent', 'bad')),
      cell(`v${w.version}`), cell(duration(w.heard_seconds_ago) + ' ago', true), cell(count(w.messages), true), cell(count(w.lost), true))));
  if (all.length > shown.length) {
    $('workers').append(element('tr', {}, element('td', {colspan: 6}, `and ${all.length - shown.length} more`)));
  }
}

const kVerdictKind = {update: 'good', would_update: 'good', balanced: 'good', apply_failed: 'bad',
                      topology_mismatch: 'bad', invalid_candidate: 'bad', paused: 'warn', rate_limited: 'warn'};
function showDecisions(s) {
  const decisions = s.decisions || [];
  fill($('decisions'), decisions, () => decisions.map(d => element('tr', {},
      cell(clock(d.ts)), element('td', {}, pill(d.verdict.replaceAll('_', ' '), kVerdictKind[d.verdict]), d.times > 1 ? ` ×${count(d.times)}` : ''),
      cell(d.detail || ''), cell(ratio(d.imbalance || null) + (d.imbalance_after ? ` → ${ratio(d.imbalance_after)}` : ''), true),
      cell(d.moves ? count(d.moves) : '', true))));
}

// [layer, expert, from, to] by layer: "expert 12 GPU 3 → 17".
function movedList(update) {
  const layers = new Map();
  for (const [layer, expert, from, to] of update.moved) {
    if (!layers.has(layer)) layers.set(layer, []);
    layers.get(layer).push(element('span', {}, `expert ${expert}: ${from < 0 ? 'disk' : `GPU ${from}`} → GPU ${to}`));
  }
  const list = element('dl', {});
  for (const [layer, moves] of layers) list.append(element('dt', {}, `layer ${layer}`), element('dd', {}, ...moves));
  const rest = update.moves - update.moved.length;
  if (rest > 0) list.append(element('dt', {}, ''), element('dd', {}, `and ${plural(rest, 'move')} more`));
  return list;
}

// An update never changes, so it is built once: what a reader opened stays open. The daemon tells of
// each once; those of before are kept.
function showUpdates(s) {
  const node = (u, made) => {
    const gain = u.imbalance_before ? `${ratio(u.imbalance_before)} → ${ratio(u.imbalance_after)}` : '';
    const details = element('details', {'data-ts': u.ts}, element('summary', {},
        element('strong', {}, made ? `v${u.version}` : 'would'), element('span', {class: 'when'}, clock(u.ts)), pill(u.reason),
        element('span', {}, `${plural(u.moves, 'move')} in ${plural(u.changed_layers, 'layer')}`), element('span', {class: 'gain'}, gain)));
    details.addEventListener('toggle', () => {
      if (details.open && details.children.length < 2) {
        details.append(element('div', {class: 'moved', tabindex: 0, role: 'region', 'aria-label': `moves of ${clock(u.ts)}`}, movedList(u)));
      }
    });
    return details;
  };
  const known = [...$('updates').children], told = new Set(known.map(one => one.dataset.ts));
  const fresh = [...s.updates.map(u => [u, true]), ...s.would_updates.map(u => [u, false])].filter(([u]) => !told.has(String(u.ts)));
  if (fresh.length) {
    const nodes = [...fresh.map(([u, made]) => node(u, made)), ...known];
    nodes.sort((a, b) => b.dataset.ts - a.dataset.ts);
    $('updates').replaceChildren(...nodes.slice(0, kUpdatesShown));
  }
  $('updates-none').hidden = $('updates').children.length > 0;
}

function show(s) {
  showHeader(s);
  showImbalance(s);
  showFacts(s);
  showTiles(s);
  charts.gpus.show(s.gpu_load_ratio, s.layer_gpu_load_ratio, s.topology.nodes, s.gpus_down || [], s.imbalance);
  const names = s.topology.layer_ids?.length ? s.topology.layer_ids : (s.layer_imbalance || []).map((_, i) => i);
  charts.heat.show(s.imbalance == null ? null : s.layer_gpu_load_ratio, names, s.layer_imbalance, s.gpus_down);
  showWorkers(s);
  showDecisions(s);
  showUpdates(s);
}

function setLink(live, text) {
  document.body.classList.toggle('gone', !live);
  $('gone').hidden = live;
  $('link').className = 'link ' + (live ? 'live' : 'lost');
  if ($('link').textContent !== text) $('link').textContent = text;
}

async function ask() {
  const answer = await fetch(`api/v1/status?since=${newest()}`, {cache: 'no-store', signal: AbortSignal.timeout(kPatienceMs)});
  if (!answer.ok) throw new Error(`it answered ${answer.status}`);
  return answer.json();
}

async function poll() {
  const status = await ask().catch(() => null);
  if (status) {
    const restarted = startedAt != null && Math.abs(status.started - startedAt) > 0.5;
    startedAt = status.started;
    answeredAt = Date.now();
    if (restarted) setLink(true, `live again since ${clock(status.started)}`);
    else if (!$('link').classList.contains('live')) setLink(true, 'live');
    show(status);
  } else {
    setLink(false, 'gone');
    const since = answeredAt ? ` since ${clock(answeredAt / 1000)}; what it said last is shown below` : '';
    $('gone').textContent = `No answer from the daemon${since}. Trying again every second.`;
  }
}

// A page that nobody looks at asks nothing.
async function run() {
  if (!document.hidden) await poll().catch(console.error);
  setTimeout(run, kPollMs);
}
document.addEventListener('visibilitychange', () => { if (!document.hidden) poll().catch(console.error); });
run();
