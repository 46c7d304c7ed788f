// What canvases have in common: crisp at any density, a cursor by pointer or arrow keys, and a
// sentence below that says what the cursor is on.
'use strict';

const colour = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const ratio = value => value == null ? '–' : value.toFixed(value < 10 ? 3 : 1);
const clock = seconds => new Date(seconds * 1000).toLocaleTimeString([], {hourCycle: 'h23'});
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

class Chart {
  // `draw(pen, width, height)` paints; `pick(x, y)` gives the cursor there; `step(cursor, dx, dy)`
  // the one beside it; `tell(cursor)` the sentence.
  constructor(id) {
    this.canvas = document.getElementById(id);
    this.readout = document.getElementById(id + '-readout');
    this.cursor = null;
    this.canvas.tabIndex = 0;
    this.canvas.setAttribute('role', 'application');
    this.canvas.setAttribute('aria-roledescription', 'chart, arrow keys move through it');
    const point = event => {
      const box = this.canvas.getBoundingClientRect();
      this.move(this.pick(event.clientX - box.left, event.clientY - box.top));
    };
    this.canvas.addEventListener('pointermove', point);
    this.canvas.addEventListener('pointerdown', point);
    this.canvas.addEventListener('pointerleave', () => this.move(null));
    this.canvas.addEventListener('blur', () => this.move(null));
    this.canvas.addEventListener('keydown', event => this.key(event));
    new ResizeObserver(() => this.paint()).observe(this.canvas);
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.paint());
  }
  key(event) {
    const by = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1],
                Home: [-1e9, 0], End: [1e9, 0]}[event.key];
    if (event.key === 'Escape') this.move(null);
    if (!by) return;
    event.preventDefault();
    this.move(this.step(this.cursor, ...by));
  }
  move(cursor) {
    this.cursor = cursor;
    this.paint();
  }
  label(text) { this.canvas.setAttribute('aria-label', text); }
  paint() {
    const {clientWidth: width, clientHeight: height} = this.canvas;
    if (!width || !this.ready) return;
    const density = devicePixelRatio || 1;
    this.canvas.width = Math.round(width * density);
    this.canvas.height = Math.round(height * density);
    const pen = this.canvas.getContext('2d');
    pen.scale(density, density);
    pen.font = '12px system-ui, sans-serif';
    this.draw(pen, width, height);
    const told = this.cursor == null ? this.hint : this.tell(this.cursor);
    if (this.readout.textContent !== told) this.readout.textContent = told;
  }
}

// Round steps for an axis of `count` marks or fewer.
function ticks(low, high, count) {
  const raw = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map(m => m * power).find(s => s >= raw);
  const out = [];
  for (let v = Math.ceil(low / step - 1e-9) * step; v <= high + 1e-9; v += step) out.push(v);
  return out;
}

// Blue below the mean, red above it, pale at it.
function heatColour(value) {
  const mix = clamp(Math.abs(value - 1) / 0.5, 0, 1);
  const channels = hex => [1, 3, 5].map(i => parseInt(hex.slice(i, i + 2), 16));
  const [from, to] = [channels(colour('--even')), channels(colour(value < 1 ? '--cold' : '--hot'))];
  return `rgb(${from.map((f, i) => Math.round(f + (to[i] - f) * mix)).join()})`;
}

// A colour for each hundredth, looked up once a painting: a map has tens of thousands of cells.
function heatPalette() {
  const shades = Array.from({length: 101}, (_, i) => heatColour(0.5 + i / 100));
  return value => shades[clamp(Math.round((value - 0.5) * 100), 0, 100)];
}

// A bar a GPU: what it does itself, and above it what it waits for others, as a layer lasts until
// its slowest GPU is done. Nodes stand apart.
class GpuChart extends Chart {
  constructor() { super('gpus'); this.loads = []; this.hint = 'No tokens in the window.'; }
  // `loads`: work over the mean, all layers; `rows`: the same of each layer; `slowest`: imbalance.
  show(loads, rows, nodes, down, slowest) {
    Object.assign(this, {loads: loads || [], nodes: nodes || 1, down: new Set(down), slowest: slowest || 1, ready: true});
    this.layers = (rows || []).filter(row => Math.max(...row) > 0);
    this.held = this.loads.map(() => 0);
    for (const row of this.layers) ++this.held[row.indexOf(Math.max(...row))];
    const most = this.held.indexOf(Math.max(...this.held));
    this.hint = !this.loads.length ? 'No tokens in the window.'
        : `Together ${ratio(this.slowest)}: each layer lasts until its slowest GPU is done. Slowest most often: ` +
          `GPU ${most}, in ${this.held[most]} of ${this.layers.length} layers` +
          (down.length ? `; down: GPU ${down.join(', ')}` : '');
    this.label('Time of each GPU. ' + this.hint);
    this.paint();
  }
  scales(width, height) {
    const left = 40, foot = 20, top = 8, high = Math.max(1.25, this.slowest, ...this.loads) * 1.05;
    const gap = this.nodes > 1 ? Math.min(8, width / this.nodes / 4) : 0;
    const bar = (width - left - gap * (this.nodes - 1)) / Math.max(1, this.loads.length);
    const node = gpu => Math.floor(gpu * this.nodes / Math.max(1, this.loads.length));
    return {left, foot, top, high, bar, node, x: gpu => left + gpu * bar + node(gpu) * gap,
            y: v => top + (high - v) / high * (height - top - foot)};
  }
  draw(pen, width, height) {
    const s = this.scales(width, height);
    pen.strokeStyle = colour('--grid'); pen.fillStyle = colour('--soft');
    pen.textAlign = 'right'; pen.textBaseline = 'middle';
    for (const v of ticks(0, s.high, 4)) {
      pen.beginPath(); pen.moveTo(s.left, s.y(v)); pen.lineTo(width, s.y(v)); pen.stroke();
      pen.fillText(v.toFixed(1), s.left - 7, s.y(v));
    }
    const inner = s.bar > 4 ? s.bar - 2 : Math.max(1, s.bar * 0.9);
    const fill = (gpu, from, to, name) => {
      pen.fillStyle = colour(name);
      pen.fillRect(s.x(gpu), s.y(to), inner, Math.max(1, s.y(from) - s.y(to)));
    };
    this.loads.forEach((load, gpu) => {
      pen.globalAlpha = this.cursor == null || this.cursor === gpu ? 1 : 0.45;
      if (this.down.has(gpu)) return;
      fill(gpu, 0, load, '--accent');
      if (load < this.slowest) fill(gpu, load, this.slowest, '--waits');
    });
    pen.globalAlpha = 1;
    if (this.loads.length) {
      pen.strokeStyle = colour('--text'); pen.lineWidth = 1; pen.setLineDash([2, 3]);
      pen.beginPath(); pen.moveTo(s.left, s.y(1)); pen.lineTo(width, s.y(1)); pen.stroke(); pen.setLineDash([]);
    }
    pen.fillStyle = colour('--soft'); pen.textAlign = 'center'; pen.textBaseline = 'bottom';
    const every = [1, 2, 4, 8, 16, 32, 64, 128].find(n => n * s.bar >= 26) || 256;
    this.loads.forEach((_, gpu) => { if (gpu % every === 0) pen.fillText(gpu, s.x(gpu) + inner / 2, height); });
  }
  pick(x) {
    const s = this.scales(this.canvas.clientWidth, this.canvas.clientHeight);
    const gpu = this.loads.findIndex((_, g) => x < s.x(g) + s.bar);
    return x < s.left || gpu < 0 ? null : gpu;
  }
  step(cursor, dx) { return this.loads.length ? clamp((cursor ?? -1) + dx, 0, this.loads.length - 1) : null; }
  tell(gpu) {
    if (gpu >= this.loads.length) return this.hint;
    if (this.down.has(gpu)) return `GPU ${gpu}: down, holds nothing`;
    return `GPU ${gpu}: works ${ratio(this.loads[gpu])} times the mean, waits ` +
        `${ratio(Math.max(0, this.slowest - this.loads[gpu]))}; slowest in ${this.held[gpu]} of ${this.layers.length} layers`;
  }
}

// Layers down, GPUs across, load over the layer's mean.
class HeatChart extends Chart {
  constructor() { super('heat'); this.rows = []; this.hint = 'No tokens in the window.'; }
  show(rows, names, layers, down) {
    Object.assign(this, {rows: rows || [], names, layers: layers || [], down: new Set(down), ready: true});
    let worst = null;
    this.rows.forEach((row, layer) => row.forEach((value, gpu) => {
      if (!worst || value > worst.value) worst = {layer, gpu, value};
    }));
    this.hint = worst ? `Hottest: layer ${names[worst.layer]} on GPU ${worst.gpu}, ` +
        `${ratio(worst.value)} times the layer's mean` : 'No tokens in the window.';
    this.label(`${this.rows.length} layers by ${this.rows[0]?.length || 0} GPUs. ${this.hint}`);
    this.paint();
  }
  scales(width, height) {
    const left = 32, top = 6, foot = 18, across = this.rows[0]?.length || 1, down = this.rows.length || 1;
    return {left, top, across, cell: (width - left) / across, row: (height - top - foot) / down};
  }
  draw(pen, width, height) {
    const s = this.scales(width, height), shade = heatPalette();
    const gap = s.cell > 5 && s.row > 4 ? 0.75 : 0;
    this.rows.forEach((row, layer) => row.forEach((value, gpu) => {
      if (this.down.has(gpu) && !value) return;  // holds nothing: neither cold nor hot
      pen.fillStyle = shade(value);
      pen.fillRect(s.left + gpu * s.cell, s.top + layer * s.row, s.cell - gap + (gap ? 0 : 0.5), s.row - gap + (gap ? 0 : 0.5));
    }));
    pen.fillStyle = colour('--soft'); pen.textAlign = 'right'; pen.textBaseline = 'middle';
    const every = [1, 2, 5, 10, 20, 50].find(n => n * s.row >= 16) || 100;
    this.rows.forEach((_, layer) => { if (layer % every === 0) pen.fillText(this.names[layer], s.left - 6, s.top + (layer + 0.5) * s.row); });
    pen.textAlign = 'center'; pen.textBaseline = 'bottom';
    const gpus = [1, 2, 4, 8, 16, 32, 64, 128].find(n => n * s.cell >= 26) || 256;
    for (let gpu = 0; this.rows.length && gpu < s.across; gpu += gpus) pen.fillText(gpu, s.left + (gpu + 0.5) * s.cell, height);
    if (this.cursor) {
      pen.strokeStyle = colour('--text'); pen.lineWidth = 2;
      pen.strokeRect(s.left + this.cursor.gpu * s.cell, s.top + this.cursor.layer * s.row, s.cell, s.row);
    }
  }
  pick(x, y) {
    const s = this.scales(this.canvas.clientWidth, this.canvas.clientHeight);
    const gpu = Math.floor((x - s.left) / s.cell), layer = Math.floor((y - s.top) / s.row);
    return this.rows[layer]?.[gpu] == null ? null : {layer, gpu};
  }
  step(cursor, dx, dy) {
    if (!this.rows.length) return null;
    const at = cursor || {layer: 0, gpu: -Math.sign(dx)};
    return {layer: clamp(at.layer + dy, 0, this.rows.length - 1), gpu: clamp(at.gpu + dx, 0, this.rows[0].length - 1)};
  }
  tell({layer, gpu}) {
    const value = this.rows[layer]?.[gpu];
    return value == null ? this.hint : `Layer ${this.names[layer]} on GPU ${gpu}: ${ratio(value)} times the mean; ` +
        `imbalance of the layer ${ratio(this.layers[layer])}`;
  }
}
