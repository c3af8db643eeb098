// Deep-zoom page of one slide. Everything it shows is in data.js (window.HIPT); names are inserted as text, never as markup.
(() => {
'use strict';
const D = window.HIPT, $ = id => document.getElementById(id), state = document.body.dataset;
window.addEventListener('error', e => { state.error = e.message || 'a file is missing'; }, true);
document.title = D.name; $('name').textContent = D.name; $('label').textContent = D.label;

const viewer = OpenSeadragon({
  element: $('slide'), drawer: 'canvas', showNavigationControl: false, showNavigator: true, navigatorPosition: 'BOTTOM_RIGHT', navigatorOpacity: 1, navigatorBackground: '#f3f3f3', navigatorBorderColor: '#888',
  maxZoomPixelRatio: 4, gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: false }, silenceMultiImageWarnings: true, animationTime: .5, imageSmoothingEnabled: true, placeholderFillStyle: '#f3f3f3',
  tileSources: [{ width: D.tiled.span, tileSource: {
    width: D.tiled.width, height: D.tiled.height, tileSize: D.tiled.tile, tileOverlap: 0, minLevel: 0, maxLevel: D.tiled.levels - 1,
    getTileUrl: (level, x, y) => `tiles/${level}/${x}_${y}.jpg` } }],
});
let layer = -1, hidden = false;
const items = D.maps.map(() => null), opacity = () => hidden ? 0 : $('opacity').value / 100;
viewer.addHandler('tile-load-failed', e => { state.error = 'tile ' + e.tile.cacheKey; });

// a map is one image laid over the area it covers; width 1 is the slide's width
const load = i => viewer.addTiledImage({
  tileSource: { type: 'image', url: D.maps[i].file, buildPyramid: false }, x: D.maps[i].x / D.width, y: D.maps[i].y / D.width, width: D.maps[i].width / D.width,
  opacity: 0, success: e => { items[i] = e.item; draw(); }, error: () => { state.error = D.maps[i].file; } });

function draw() {
  items.forEach((item, i) => item && item.setOpacity(i === layer ? opacity() : 0));
  state.layer = layer; state.opacity = opacity(); $('shown').textContent = Math.round(100 * opacity()) + ' %';
  const m = D.maps[layer];
  $('bar').hidden = !m;
  if (!m) return;
  $('bar').querySelector('i').style.background = `linear-gradient(90deg, ${m.colours.join(',')})`;
  agreement();
  $('low').textContent = m.low; $('high').textContent = m.high; $('units').textContent = m.units;
}

// layers of one level share a line; two selectors switch between its heads and scalings
const levels = [...new Set(D.maps.map(m => m.level))], of = (level, head, scaling) => D.maps.findIndex(m => m.level === level && (head === undefined || m.head === head) && (scaling === undefined || m.scaling === scaling));
function choose(i) {
  layer = Math.max(-1, Math.min(D.maps.length - 1, i));
  if (layer >= 0 && items[layer] === null) { items[layer] = undefined; load(layer); }
  const m = D.maps[layer];
  $('layers').querySelectorAll('input')[m ? levels.indexOf(m.level) + 1 : 0].checked = true;
  for (const key of ['head', 'scaling']) {
    const values = m ? [...new Set(D.maps.filter(o => o.level === m.level).map(o => o[key]))] : [], box = $(key);
    box.replaceChildren(...values.map(v => new Option(v)));
    if (m) box.value = m[key];
    box.parentNode.hidden = values.length < 2;
  }
  draw();
}
function toLevel(k) {
  if (k < 0) return choose(-1);
  const m = D.maps[layer] || {}, level = levels[Math.min(k, levels.length - 1)];
  choose([of(level, m.head, m.scaling), of(level, undefined, m.scaling), of(level)].find(i => i >= 0));
}
const current = () => layer < 0 ? -1 : levels.indexOf(D.maps[layer].level);
function other(key, value) {
  const m = D.maps[layer];
  if (!m) return;
  const want = { ...m, [key]: value }, i = of(m.level, want.head, want.scaling);
  if (i >= 0) choose(i);
}
const next = key => { const box = $(key); if (box.options.length > 1) other(key, box.options[(box.selectedIndex + 1) % box.options.length].value); };
['slide only', ...levels].forEach((name, i) => {
  const label = $('layers').appendChild(document.createElement('label')), input = document.createElement('input');
  input.type = 'radio'; input.name = 'layer'; input.addEventListener('change', () => toLevel(i - 1));
  label.append(input, ' ' + name);
});
for (const key of ['head', 'scaling']) $(key).addEventListener('change', e => other(key, e.target.value));
$('opacity').addEventListener('input', () => { hidden = false; draw(); });

function scale() {
  const perPixel = D.mpp * D.width / (viewer.viewport.getContainerSize().x * viewer.viewport.getZoom(true));
  if (!D.mpp || !isFinite(perPixel)) { $('scale').hidden = true; return; }
  const wanted = 140 * perPixel, ten = 10 ** Math.floor(Math.log10(wanted)), um = ten * [5, 2, 1].find(k => k * ten <= wanted);
  $('scale').querySelector('i').style.width = um / perPixel + 'px';
  $('scale').querySelector('b').textContent = um >= 1000 ? um / 1000 + ' mm' : um + ' µm';
}
for (const event of ['open', 'animation', 'resize', 'update-viewport']) viewer.addHandler(event, scale);
viewer.addOnceHandler('open', () => { choose(D.maps.length ? 0 : -1); grid(); state.ready = D.maps.length; });

// the grid of regions, and buttons that jump to the most attended ones
const NS = 'http://www.w3.org/2000/svg', regions = D.regions.filter(r => r.score !== null).sort((a, b) => b.score - a.score);
let visited = -1;
function grid() {
  const svg = $('grid'), on = $('gridded').checked;
  svg.style.display = on ? '' : 'none'; state.grid = +on;
  if (!on) return;
  const at = (x, y) => viewer.viewport.pixelFromPoint(new OpenSeadragon.Point(x / D.width, y / D.width), true);
  svg.replaceChildren(...D.regions.map(r => {
    const a = at(r.x, r.y), b = at(r.x + r.size, r.y + r.size), path = document.createElementNS(NS, 'path'), lines = [`M${a.x} ${a.y}H${b.x}V${b.y}H${a.x}Z`];
    const n = r.cells, w = (b.x - a.x) / n;
    if (w > 24) for (let k = 1; k < n; k++) lines.push(`M${a.x + k * w} ${a.y}V${b.y}M${a.x} ${a.y + k * w}H${b.x}`);
    path.setAttribute('d', lines.join(''));
    return path;
  }));
}
function visit(i) {
  if (!regions.length) return;
  visited = (i + regions.length) % regions.length; state.visited = visited;
  const r = regions[visited], pad = r.size * .05;
  viewer.viewport.fitBounds(new OpenSeadragon.Rect((r.x - pad) / D.width, (r.y - pad) / D.width, (r.size + 2 * pad) / D.width, (r.size + 2 * pad) / D.width));
}
regions.slice(0, 8).forEach((r, i) => {
  const b = $('most').querySelector('div').appendChild(document.createElement('button'));
  b.type = 'button'; b.textContent = `${i + 1}: ${r.score.toFixed(2)}`; b.addEventListener('click', () => visit(i));
});
$('most').hidden = !regions.length;
for (const event of ['open', 'animation', 'resize', 'update-viewport']) viewer.addHandler(event, grid);
$('gridded').addEventListener('change', grid);

// other slides of the run
if (D.listed) {
  const script = document.createElement('script');
  script.src = '../slides.js';
  script.onload = () => {
    const box = $('slides'); box.hidden = false;
    for (const s of window.HIPT_SLIDES) { const o = new Option([s.name, s.label, s.prediction].filter(Boolean).join(' · '), s.href); o.selected = s.name === D.name; box.add(o); }
    box.addEventListener('change', () => { location.href = '../' + box.value + '/index.html'; });
    state.slides = box.options.length;
  };
  document.body.append(script);
}

// annotations: polygons that are relevant or not, saved by the server of a live page
let annotator = null, chosen = null, token = null;
const marks = new Map(), step0 = D.tiled.step;  // Annotorious counts in pixels of the finest tile level
function toPage(n, id) {
  const points = n.points.slice(0, -1).map(([x, y]) => [x / step0, y / step0]), xs = points.map(p => p[0]), ys = points.map(p => p[1]);
  return { id, bodies: [], target: { annotation: id, selector: { type: 'POLYGON', geometry: { points, bounds: { minX: Math.min(...xs), minY: Math.min(...ys), maxX: Math.max(...xs), maxY: Math.max(...ys) } } } } };
}
function toFeature(a) {
  const p = a.target.selector.geometry.points.map(([x, y]) => [x * step0, y * step0]), m = marks.get(a.id);
  return { type: 'Feature', geometry: { type: 'Polygon', coordinates: [[...p, p[0]]] }, properties: { relevant: m.relevant, note: m.note } };
}
function edit(a) {
  chosen = a; $('note').hidden = !a;
  if (!a) return;
  const m = marks.get(a.id) || { relevant: true, note: '' };
  $('note').elements.relevant.value = +m.relevant; $('text').value = m.note; $('text').focus();
}
let agreed = [];
function agreement(rows = agreed) {
  agreed = rows;
  const now = D.maps[layer], scaled = rows.filter(r => !now || (D.maps.find(m => m.name === r.name) || now).scaling === now.scaling);
  const line = (tag, cells) => { const tr = document.createElement('tr'); for (const c of cells) tr.appendChild(document.createElement(tag)).textContent = c; return tr; };
  $('agreement').replaceChildren(...(scaled.length ? [line('th', ['Agreement with', 'AUC'])] : []), ...scaled.map(r => line('td', [r.name, r.auc.toFixed(2)])));
}
async function save() {
  const features = annotator.state.store.all().filter(a => marks.has(a.id)).map(toFeature);
  const answer = await fetch('notes', { method: 'POST', headers: { 'Content-Type': 'application/json', 'X-HIPT-Token': token }, body: JSON.stringify({ type: 'FeatureCollection', features }) });
  if (!answer.ok) { $('saved').textContent = 'Not saved: ' + answer.statusText; return; }
  const result = await answer.json();
  state.saved = result.saved; $('saved').textContent = `${result.saved} saved`; agreement(result.agreement);
}
function drawing(on) { annotator.setDrawingTool('polygon'); annotator.setDrawingEnabled(on); state.drawing = +on; $('draw').setAttribute('aria-pressed', on); $('saved').textContent = on ? 'Click each corner, double-click to finish' : ''; }
function mark(relevant) {
  const c = viewer.viewport.getCenter(true), x = c.x * D.width, y = c.y * D.width, r = D.regions.find(r => x >= r.x && x < r.x + r.size && y >= r.y && y < r.y + r.size);
  if (!r) { $('saved').textContent = 'No region in the middle of the view'; return; }
  const all = annotator.state.store.all(), [l, t, s] = [r.x / step0, r.y / step0, r.size / step0], same = (b, q) => Math.abs(b - q) < 1;
  const old = all.find(a => { const p = a.target.selector.geometry, b = p.bounds; return p.points.length === 4 && same(b.minX, l) && same(b.minY, t) && same(b.maxX, l + s) && same(b.maxY, t + s); });
  const a = old || toPage({ points: [[r.x, r.y], [r.x + r.size, r.y], [r.x + r.size, r.y + r.size], [r.x, r.y + r.size], [r.x, r.y]] }, 'region-' + Date.now());
  marks.set(a.id, { note: '', ...marks.get(a.id), relevant });
  if (!old) annotator.state.store.addAnnotation(a);
  annotator.setSelected(a.id); edit(annotator.state.store.getAnnotation(a.id));
  save();
}
// the drawing tool is loaded by live pages only
function part(tag, what) { return new Promise((done, failed) => { const e = Object.assign(document.createElement(tag), what); e.onload = done; e.onerror = () => failed(new Error(e.src || e.href)); document.head.append(e); }); }
async function notes() {
  const s = await (await fetch('session.json')).json();
  token = s.token;
  if (!token) return;
  await Promise.all([part('link', { rel: 'stylesheet', href: 'annotorious.css' }), part('script', { src: 'annotorious.min.js' })]);
  annotator = AnnotoriousOSD.createOSDAnnotator(viewer, { drawingMode: 'click', style: a => ({ fill: (marks.get(a.id) || { relevant: true }).relevant ? '#0072b2' : '#d55e00', fillOpacity: .15, stroke: (marks.get(a.id) || { relevant: true }).relevant ? '#0072b2' : '#d55e00', strokeWidth: 2 }) });
  $('notes').hidden = $('keydraw').hidden = false; $('mark').hidden = !D.regions.length;
  const old = s.notes.map((n, i) => toPage(n, 'note-' + i));
  s.notes.forEach((n, i) => marks.set('note-' + i, { relevant: n.relevant, note: n.note }));
  annotator.state.store.bulkAddAnnotations(old); agreement(s.agreement);
  annotator.on('createAnnotation', a => { drawing(false); annotator.setSelected(a.id); edit(annotator.state.store.getAnnotation(a.id)); });
  annotator.on('selectionChanged', list => edit(list.length ? annotator.state.store.getAnnotation(list[0].id) : null));
  $('yes').addEventListener('click', () => mark(true)); $('no').addEventListener('click', () => mark(false));
  $('draw').addEventListener('click', () => drawing(!+state.drawing));
  $('note').addEventListener('submit', e => { e.preventDefault(); marks.set(chosen.id, { relevant: $('note').elements.relevant.value === '1', note: $('text').value }); annotator.cancelSelected(); edit(null); save(); });
  $('drop').addEventListener('click', () => { const id = chosen.id, kept = marks.delete(id); annotator.cancelSelected(); annotator.removeAnnotation(id); edit(null); if (kept) save(); });
  state.notes = old.length;
}
if (D.live) viewer.addOnceHandler('open', () => notes().catch(e => { state.error = e.message; }));

const step = k => { $('opacity').value = +$('opacity').value + k; hidden = false; draw(); };
const keys = { ArrowDown: () => toLevel(current() + 1), ArrowUp: () => toLevel(current() - 1), h: () => next('head'), s: () => next('scaling'), n: () => visit(visited + 1), g: () => { $('gridded').checked = !$('gridded').checked; grid(); }, d: () => annotator && drawing(!+state.drawing), r: () => annotator && mark(true), x: () => annotator && mark(false), '[': () => step(-5), ']': () => step(5), ' ': () => { hidden = !hidden; draw(); }, '0': () => viewer.viewport.goHome() };
viewer.innerTracker.keyHandler = null; viewer.innerTracker.keyDownHandler = null;
document.addEventListener('keydown', e => { const f = keys[e.key]; if (f && !e.target.closest('textarea, select') && !(e.ctrlKey || e.metaKey || e.altKey) && !(e.target.id === 'opacity' && e.key.startsWith('Arrow'))) { e.preventDefault(); f(); } });
window.hiptViewer = { viewer, choose, items, annotator: () => annotator };
})();
