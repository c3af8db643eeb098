// Deep-zoom page of one slide. Everything it shows is in data.js (window.HIPT); names are inserted as text, never as markup.
(() => {
'use strict';
const D = window.HIPT, $ = id => document.getElementById(id), state = document.body.dataset;
window.addEventListener('error', e => { state.error = e.message || 'a file is missing'; }, true);
document.title = D.name; $('name').textContent = D.name; $('label').textContent = D.label;

const viewer = OpenSeadragon({
  element: $('slide'), drawer: 'canvas', showNavigationControl: false, showNavigator: true, navigatorPosition: 'BOTTOM_RIGHT', navigatorOpacity: 1, navigatorBackground: '#f3f3f3', navigatorBorderColor: '#888',
  maxZoomPixelRatio: 4, gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true }, silenceMultiImageWarnings: true, animationTime: matchMedia('(prefers-reduced-motion: reduce)').matches ? 0 : .5, imageSmoothingEnabled: true, placeholderFillStyle: '#f3f3f3',
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
  $('scale').querySelector('small').textContent = `${perPixel >= 10 ? perPixel.toFixed(0) : perPixel.toPrecision(2)} µm/px, ${(10 / perPixel).toPrecision(2)}×`;
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
    for (const s of window.HIPT_SLIDES) { const o = new Option([s.name, s.label, s.prediction].filter(Boolean).join(' · '), s.href); box.add(o); }
    const here = () => { box.value = window.HIPT_SLIDES.find(s => s.name === D.name).href; };
    here(); window.addEventListener('pageshow', here);        // a browser that goes back restores what was chosen last
    box.addEventListener('change', async () => { const to = box.value; here(); if (!hiptViewer.leave || await hiptViewer.leave()) location.href = '../' + to + '/index.html'; });
    state.slides = box.options.length;
  };
  document.body.append(script);
}

// how far attention agrees with what was marked, told by notes.js
let agreed = [];
function agreement(rows = agreed) {
  agreed = rows;
  const now = D.maps[layer], scaled = rows.filter(r => !now || (D.maps.find(m => m.name === r.name) || now).scaling === now.scaling);
  const line = (tag, cells) => { const tr = document.createElement('tr'); for (const c of cells) tr.appendChild(document.createElement(tag)).textContent = c; return tr; };
  const ends = r => r.low === null || isNaN(r.low) ? '' : ` (${r.low.toFixed(2)} to ${r.high.toFixed(2)})`;
  $('agreement').replaceChildren(...(scaled.length ? [line('th', [`Agreement with ${scaled[0].relevant} + ${scaled[0].others} marks`, 'AUC'])] : []), ...scaled.map(r => line('td', [r.name, r.auc.toFixed(2) + ends(r)])));
}
// the drawing tool is loaded by live pages only
function part(tag, what) { return new Promise((done, failed) => { const e = Object.assign(document.createElement(tag), what); e.onload = done; e.onerror = () => failed(new Error(e.src || e.href)); document.head.append(e); }); }
async function notes() {
  await Promise.all([part('link', { rel: 'stylesheet', href: 'annotorious.css' }), part('script', { src: 'annotorious.min.js' })]);
  await part('script', { src: 'notes.js' });
}

const step = k => { $('opacity').value = +$('opacity').value + k; hidden = false; draw(); };
const zoom = by => { viewer.viewport.zoomBy(by); viewer.viewport.applyConstraints(); };
const pan = (x, y) => { const b = viewer.viewport.getBounds(); viewer.viewport.panBy(new OpenSeadragon.Point(x * b.width / 8, y * b.height / 8)); viewer.viewport.applyConstraints(); };
const help = $('help');
const keys = {
  '+': () => zoom(1.5), '=': () => zoom(1.5), '-': () => zoom(1 / 1.5), '0': () => viewer.viewport.goHome(),
  ArrowLeft: () => pan(-1, 0), ArrowRight: () => pan(1, 0), ArrowUp: () => pan(0, -1), ArrowDown: () => pan(0, 1),
  '.': () => toLevel(Math.min(current() + 1, levels.length - 1)), ',': () => toLevel(current() - 1), h: () => next('head'), s: () => next('scaling'),
  '[': () => step(-5), ']': () => step(5), ' ': () => { hidden = !hidden; draw(); }, g: () => { $('gridded').checked = !$('gridded').checked; grid(); },
  n: () => visit(visited + 1), p: () => visit(visited < 0 ? -1 : visited - 1), f: () => full(), '?': () => help.showModal() };
// OpenSeadragon's own keys would act a second time
viewer.innerTracker.keyHandler = null; viewer.innerTracker.keyDownHandler = null;
document.addEventListener('keydown', e => {
  const f = keys[e.key], at = e.target;
  if (!f || e.ctrlKey || e.metaKey || e.altKey || help.open || at.closest('textarea, select, input[type=text]')) return;
  if (at.closest('button, a, summary, input[type=checkbox], input[type=radio]') && (e.key === ' ' || e.key === 'Enter')) return;      // the control is pressed
  if (at.closest('input[type=range], input[type=radio]') && e.key.startsWith('Arrow')) return;
  e.preventDefault(); f();
});
function full() { document.fullscreenElement ? document.exitFullscreen() : $('slide').requestFullscreen(); }
for (const [id, key] of [['zoom-in', '+'], ['zoom-out', '-'], ['home', '0'], ['full', 'f'], ['help-open', '?']]) $(id).addEventListener('click', () => keys[key]());

// a link to this very view
function place() {
  const c = viewer.viewport.getCenter(true), z = viewer.viewport.getZoom(true);
  if (isFinite(z)) history.replaceState(null, '', `#x=${Math.round(c.x * D.width)}&y=${Math.round(c.y * D.width)}&z=${+z.toFixed(3)}&layer=${layer}`);
}
function toPlace() {
  const at = new URLSearchParams(location.hash.slice(1));
  if (!at.has('z')) return;
  viewer.viewport.zoomTo(+at.get('z'), null, true);
  viewer.viewport.panTo(new OpenSeadragon.Point(+at.get('x') / D.width, +at.get('y') / D.width), true);
  if (at.has('layer')) choose(+at.get('layer'));
}
viewer.addOnceHandler('open', () => { toPlace(); viewer.addHandler('animation-finish', place); });
window.addEventListener('hashchange', toPlace);
window.hiptViewer = { viewer, D, choose, items, keys, agreed: agreement };
if (D.live) viewer.addOnceHandler('open', () => notes().catch(e => { state.error = e.message; }));
})();
