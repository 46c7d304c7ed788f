// Imbalance over time. A point is [ts, now, initial placement, worst layer, measured, best possible,
// would be], as the status gives it; null or 0: not known.
const kSeries = [
  {column: 2, name: 'initial placement', colour: '--initial', width: 1.6, dash: []},
  {column: 5, name: 'best possible', colour: '--soft', width: 1.3, dash: [1, 3]},
  {column: 3, name: 'worst layer', colour: '--limit', width: 1.3, dash: []},
  {column: 4, name: 'measured by workers', colour: '--good', width: 1.3, dash: []},
  {column: 6, name: 'would be', colour: '--accent', width: 1.6, dash: [6, 3]},
  {column: 1, name: 'now', colour: '--accent', width: 2.2, dash: []},
];
const kThreshold = {name: 'a layer above this is acted on', colour: '--limit', dash: [5, 4]};
// What is marked at the foot; anything else gets a line and its name.
const kTriangles = {update: true, would_update: false};

class HistoryChart extends Chart {
  constructor() {
    super('history');
    Object.assign(this, {points: [], events: []});
    this.hint = 'Marks at the foot: placements published (hollow: would have been). Lines: orders and modes.';
  }
  show(points, threshold, events) {
    Object.assign(this, {points, threshold, events, ready: true});
    const last = points.at(-1);
    this.label(last ? `Imbalance over time: now ${ratio(last[1])}, with the initial placement ` +
                      `${ratio(last[2])}, of the worst layer ${ratio(last[3])}, which is acted on above ${ratio(threshold)}`
                    : 'Imbalance over time: nothing yet');
    this.paint();
  }
  scales(width, height) {
    const left = 40, right = 8, top = 16, foot = 30;
    const end = this.points.length ? this.points.at(-1)[0] : Date.now() / 1000;
    const begin = Math.min(this.points.length ? this.points[0][0] : end, end - 60);
    let high = (this.threshold || 1) * 1.02;
    for (const point of this.points) high = Math.max(high, ...kSeries.map(one => point[one.column] || 0));
    high = 1 + (high - 1) * 1.08;
    return {left, right, top, foot, begin, end, high,
      x: ts => left + (ts - begin) / (end - begin) * (width - left - right),
      y: v => top + (high - v) / (high - 1) * (height - top - foot)};
  }
  draw(pen, width, height) {
    const s = this.scales(width, height);
    pen.lineWidth = 1; pen.fillStyle = colour('--soft'); pen.strokeStyle = colour('--grid');
    pen.textAlign = 'right'; pen.textBaseline = 'middle';
    for (const v of ticks(1, s.high, 6)) {
      pen.beginPath(); pen.moveTo(s.left, s.y(v)); pen.lineTo(width - s.right, s.y(v)); pen.stroke();
      pen.fillText(v.toFixed(s.high < 1.3 ? 2 : 1), s.left - 7, s.y(v));
    }
    this.drawTimes(pen, s, width, height);
    this.drawEvents(pen, s, width, height);
    for (const one of kSeries) this.drawSeries(pen, s, one);
    if (this.threshold) {
      pen.strokeStyle = colour(kThreshold.colour); pen.lineWidth = 1.4; pen.setLineDash(kThreshold.dash);
      pen.beginPath(); pen.moveTo(s.left, s.y(this.threshold)); pen.lineTo(width - s.right, s.y(this.threshold));
      pen.stroke(); pen.setLineDash([]);
    }
    if (this.cursor != null) this.drawCursor(pen, s, height);
  }
  drawSeries(pen, s, {column, colour: name, width, dash}) {
    pen.strokeStyle = colour(name); pen.lineWidth = width; pen.lineJoin = 'round'; pen.setLineDash(dash);
    pen.beginPath();
    let before = null;
    for (const p of this.points) {
      // A hole is a hole: no line over the time the daemon was gone or had no tokens.
      if (!p[column]) { before = null; continue; }
      if (before != null && p[0] - before < 10) pen.lineTo(s.x(p[0]), s.y(p[column]));
      else pen.moveTo(s.x(p[0]), s.y(p[column]));
      before = p[0];
    }
    pen.stroke(); pen.setLineDash([]);
  }
  drawTimes(pen, s, width, height) {
    const span = s.end - s.begin;
    const step = [10, 30, 60, 120, 300, 600, 1200, 3600].find(t => span / t <= width / 110) || 7200;
    pen.textAlign = 'center'; pen.textBaseline = 'bottom'; pen.fillStyle = colour('--soft');
    const brief = {hourCycle: 'h23', hour: '2-digit', minute: '2-digit', ...(step < 60 && {second: '2-digit'})};
    for (let t = Math.ceil(s.begin / step) * step; t <= s.end; t += step) {
      const x = s.x(t);
      if (x > s.left + 15 && x < width - 25) pen.fillText(new Date(t * 1000).toLocaleTimeString([], brief), x, height);
    }
  }
  drawEvents(pen, s, width, height) {
    let free = 0;  // where the next name may begin
    for (const event of this.events) {
      if (event.ts < s.begin || event.ts > s.end) continue;
      const x = s.x(event.ts), y = height - s.foot + 2, full = kTriangles[event.kind];
      if (full != null) {
        pen.fillStyle = pen.strokeStyle = colour('--accent'); pen.lineWidth = 1;
        pen.beginPath(); pen.moveTo(x, y); pen.lineTo(x - 4, y + 8); pen.lineTo(x + 4, y + 8); pen.closePath();
        if (full) pen.fill(); else pen.stroke();
        continue;
      }
      pen.strokeStyle = colour('--soft'); pen.lineWidth = 1; pen.setLineDash([3, 3]);
      pen.beginPath(); pen.moveTo(x, s.top); pen.lineTo(x, height - s.foot); pen.stroke(); pen.setLineDash([]);
      const name = event.kind === 'mode' ? event.text : event.kind, wide = pen.measureText(name).width;
      const from = clamp(x - wide / 2, s.left, width - s.right - wide);
      if (from < free) continue;
      free = from + wide + 6;
      pen.fillStyle = colour('--soft'); pen.textAlign = 'left'; pen.textBaseline = 'top';
      pen.fillText(name, from, 1);
    }
  }
  drawCursor(pen, s, height) {
    const p = this.points[this.cursor];
    if (!p) return;
    pen.strokeStyle = colour('--soft'); pen.lineWidth = 1;
    pen.beginPath(); pen.moveTo(s.x(p[0]), s.top); pen.lineTo(s.x(p[0]), height - s.foot); pen.stroke();
    for (const {column, colour: name} of kSeries) {
      if (!p[column]) continue;
      pen.fillStyle = colour(name); pen.beginPath(); pen.arc(s.x(p[0]), s.y(p[column]), 3.5, 0, 7); pen.fill();
    }
  }
  pick(x) {
    if (!this.points.length) return null;
    const s = this.scales(this.canvas.clientWidth, this.canvas.clientHeight);
    let best = 0;
    this.points.forEach((p, i) => { if (Math.abs(s.x(p[0]) - x) < Math.abs(s.x(this.points[best][0]) - x)) best = i; });
    return best;
  }
  step(cursor, dx) {
    const last = this.points.length - 1;
    return last < 0 ? null : clamp((cursor ?? last + 1) + dx, 0, last);
  }
  // What is known at that point, and what happened within a mark's width of it.
  tell(cursor) {
    const p = this.points[cursor];
    if (!p) return this.hint;
    const values = [...kSeries].reverse().filter(one => p[one.column]).map(one => `${ratio(p[one.column])} ${one.name}`);
    const s = this.scales(this.canvas.clientWidth, this.canvas.clientHeight);
    const near = this.events.filter(event => Math.abs(s.x(event.ts) - s.x(p[0])) <= 4).slice(-3);
    return [`${clock(p[0])}: ${values.join(', ')}`, ...near.map(event => event.text)].join(' · ');
  }
}
