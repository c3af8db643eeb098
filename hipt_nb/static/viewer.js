// Deep-zoom page of one slide. Everything it shows is in data.js (window.HIPT); names are inserted as text, never as markup.
(() => {
'use strict';
const D = window.HIPT, $ = id => document.getElementById(id), state = document.body.dataset;
window.addEventListener('error', e => { state.error = e.message || 'a file is missing'; }, true);
document.title = D.name; $('name').textContent = D.name; $('label').textContent = D.label && 'label ' + D.label; $('prediction').textContent = D.prediction; $('about').textContent = D.about; $('warning').textContent = D.warning; $('warning').hidden = !D.warning;
$('slides').hidden = $('all').hidden = !D.listed;   // before the viewer measures its place

const viewer = OpenSeadragon({
  element: $('slide'), drawer: 'canvas', showNavigationControl: false, showNavigator: true, navigatorPosition: 'BOTTOM_RIGHT', navigatorOpacity: 1, navigatorMaintainSizeRatio: true, navigatorBackground: '#f3f3f3', navigatorBorderColor: '#888',
  maxZoomPixelRatio: 4, gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true }, silenceMultiImageWarnings: true, animationTime: matchMedia('(prefers-reduced-motion: reduce)').matches ? 0 : .5, imageSmoothingEnabled: true, placeholderFillStyle: '#f3f3f3',
  tileSources: [{ width: D.tiled.span, tileSource: {
    width: D.tiled.width, height: D.tiled.height, tileSize: D.tiled.tile, tileOverlap: 0, minLevel: 0, maxLevel: D.tiled.levels - 1,
    getTileUrl: (level, x, y) => `tiles/${level}/${x}_${y}.jpg` } }],
});
let layer = -1, hidden = false;
const items = D.maps.map(() => null), pictures = D.maps.map(() => null), opacity = () => hidden ? 0 : $('opacity').value / 100;
viewer.addHandler('tile-load-failed', e => { state.error = 'tile ' + e.tile.cacheKey; });

// the values of a map come as a PNG in a script: 16 bits in red and green, transparent where nothing is known
window.HIPT_MAPS = [];
function part(tag, what) { return new Promise((done, failed) => { const e = Object.assign(document.createElement(tag), what); e.onload = done; e.onerror = () => failed(new Error(e.src || e.href)); document.head.append(e); }); }
async function values(i) {
  if (pictures[i]) return pictures[i];
  const file = D.maps[i].file;
  if (file.endsWith('.json')) window.HIPT_MAPS[i] = await asked('tokens', file); else await part('script', { src: file });
  const image = Object.assign(new Image(), { src: window.HIPT_MAPS[i] });
  await image.decode();
  const { width, height } = image, context = Object.assign(document.createElement('canvas'), { width, height }).getContext('2d', { colorSpace: 'srgb' });
  context.drawImage(image, 0, 0);
  window.HIPT_MAPS[i] = null;
  return pictures[i] = { width, height, data: context.getImageData(0, 0, width, height).data };
}
async function asked(what, address) { const answer = await fetch(address); if (!answer.ok) throw new Error(`${what}: ${answer.statusText}`); return answer.json(); }
const share = (v, k) => v.data[4 * k + 3] ? (256 * v.data[4 * k] + v.data[4 * k + 1]) / 65535 : NaN;
// colours, enlarged so that cells stay sharp, but no finer than the slide: the drawing tool counts in pixels of the finest image
function coloured(i) {
  const m = D.maps[i], v = pictures[i], colours = D.colours[$('colours').value || m.cmap].map(c => [1, 3, 5].map(k => parseInt(c.slice(k, k + 2), 16))), from = $('from').value / 100;
  const cells = new ImageData(v.width, v.height);
  for (let k = 0; k < v.width * v.height; k++) {
    const s = share(v, k);
    if (s >= from) cells.data.set([...colours[Math.round(255 * s)], 255], 4 * k);
  }
  const small = Object.assign(document.createElement('canvas'), { width: v.width, height: v.height });
  small.getContext('2d').putImageData(cells, 0, 0);
  const k = Math.max(1, Math.min(16, Math.floor(1024 / Math.max(v.width, v.height)), Math.floor(m.height / v.height)));
  const large = Object.assign(document.createElement('canvas'), { height: v.height * k, width: Math.max(1, Math.round(v.height * k * m.width / m.height)) }), c = large.getContext('2d');
  c.imageSmoothingEnabled = false;
  c.drawImage(small, 0, 0, large.width, large.height);
  return large.toDataURL();
}
// a map is one image laid over the area it covers; width 1 is the slide's width
async function load(i) {
  try { await values(i); } catch (e) { state.error = e.message || D.maps[i].file; return; }
  const m = D.maps[i], now = loads[i] = (loads[i] || 0) + 1;
  viewer.addTiledImage({
    tileSource: { type: 'image', url: coloured(i), buildPyramid: false }, x: m.x / D.width, y: m.y / D.width, width: m.width / D.width, opacity: 0,
    success: e => { if (now !== loads[i]) return viewer.world.removeItem(e.item); if (items[i]) viewer.world.removeItem(items[i]); items[i] = e.item; draw(); },
    error: () => { state.error = m.file; } });
}
const loads = [];
function recolour() { if (layer >= 0 && pictures[layer]) load(layer); draw(); }

const number = v => Math.abs(v) >= 1e4 || (v && Math.abs(v) < 1e-3) ? v.toExponential(2) : String(+v.toPrecision(3));
function draw() {
  items.forEach((item, i) => item && item.setOpacity(i === layer ? opacity() : 0));
  state.layer = layer; state.opacity = opacity(); $('shown').textContent = Math.round(100 * opacity()) + ' %';
  const m = D.maps[layer];
  $('bar').hidden = $('look').hidden = !m;
  if (!m) return;
  const from = $('from').value / 100, colours = D.colours[$('colours').value || m.cmap];
  $('bar').querySelector('i').style.background = `linear-gradient(90deg, ${colours.filter((c, k) => k % 15 === 0).join(',')})`;
  $('least').textContent = from ? number(m.low + from * (m.high - m.low)) : 'all';
  agreement();
  $('low').textContent = number(m.low); $('high').textContent = number(m.high); $('units').textContent = m.units;
}

// layers of one level share a line; two selectors switch between its heads and scalings
const TOKENS = 'tokens', levels = [...new Set([...D.maps.map(m => m.level), ...(D.tokens ? [TOKENS] : [])])];
const of = (level, head, scaling, region) => D.maps.findIndex(m => m.level === level && (head === undefined || m.head === head) && (scaling === undefined || m.scaling === scaling) && (region === undefined || m.region === region));
const nearest = (level, m, region) => [of(level, m.head, m.scaling, region), of(level, undefined, m.scaling, region), of(level, undefined, undefined, region)].find(i => i >= 0);
let following = false, look = {};          // tokens: shown of the region in the middle, with the head and scaling last chosen
function choose(i) {
  const m = D.maps[Math.max(-1, Math.min(D.maps.length - 1, i))];
  following = !!m && m.level === TOKENS;
  if (following && !inMiddle(m.region)) { look = m; return follow(); }
  shown(m);
}
function shown(m) {
  layer = m ? D.maps.indexOf(m) : -1;
  if (m) look = m;
  if (layer >= 0 && items[layer] === null) { items[layer] = undefined; load(layer); }
  $('layers').querySelectorAll('input')[following ? levels.indexOf(TOKENS) + 1 : m ? levels.indexOf(m.level) + 1 : 0].checked = true;
  for (const key of ['head', 'scaling']) {
    const values = m ? [...new Set(D.maps.filter(o => o.level === m.level).map(o => o[key]))] : [], box = $(key);
    box.replaceChildren(...values.map(v => new Option(v)));
    if (m) box.value = m[key];
    box.parentNode.hidden = values.length < 2;
  }
  draw();
}
function toLevel(k) {
  if (k < 0) { following = false; return shown(); }
  const level = levels[Math.min(k, levels.length - 1)];
  following = level === TOKENS;
  if (following) follow(); else shown(D.maps[nearest(level, look)]);
}
const current = () => following ? levels.indexOf(TOKENS) : layer < 0 ? -1 : levels.indexOf(D.maps[layer].level);
function other(key, value) {
  const m = D.maps[layer];
  if (!m) return;
  const want = { ...m, [key]: value }, i = of(m.level, want.head, want.scaling, m.region);
  if (i >= 0) shown(D.maps[i]);
}
// the tokens of the region in the middle: those that came with the page, or computed by its server
const middle = () => { const c = viewer.viewport.getCenter(true); return regionAt(c.x * D.width, c.y * D.width); };
const inMiddle = name => { const r = middle(); return !!r && r.name === name; };
let computing = null;
function follow() {
  if (!following) return;
  const r = middle(), i = r ? nearest(TOKENS, look, r.name) : undefined, say = text => { $('tell').textContent = text; };
  if (i !== undefined) { if (i !== layer || state.layer !== String(i)) { say(''); shown(D.maps[i]); } return; }
  const close = r && viewer.viewport.getBounds(true).width * D.width < 3 * r.size;
  shown(close && D.tokens ? undefined : D.maps[nearest(TOKENS, look)]);
  if (!D.tokens) say(`Tokens are here of ${[...new Set(D.maps.filter(m => m.level === TOKENS).map(m => m.region))].join(', ')}`);
  else if (!close) say('Go to a region to see its tokens');
  else if (computing) say(`Computing the tokens of ${computing} …`);
  else compute(r.name);
}
async function compute(name) {
  computing = name; $('tell').textContent = `Computing the tokens of ${name} …`;
  let failed = '';
  try { for (const m of await asked(name, `tokens/${name}.json`)) { D.maps.push(m); items.push(null); pictures.push(null); } } catch (e) { failed = e.message; }
  computing = null;
  if (failed) { if (following) $('tell').textContent = `No tokens of ${failed}`; } else { state.computed = name; follow(); }
}
const next = key => { const box = $(key); if (box.options.length > 1) other(key, box.options[(box.selectedIndex + 1) % box.options.length].value); };
['slide only', ...levels].forEach((name, i) => {
  const label = $('layers').appendChild(document.createElement('label')), input = document.createElement('input');
  input.type = 'radio'; input.name = 'layer'; input.addEventListener('change', () => toLevel(i - 1));
  label.append(input, ' ' + name);
});
for (const key of ['head', 'scaling']) $(key).addEventListener('change', e => other(key, e.target.value));
$('opacity').addEventListener('input', () => { hidden = false; draw(); });
$('colours').append(new Option('as it comes', ''), ...Object.keys(D.colours).map(c => new Option(c)));
for (const id of ['colours', 'from']) $(id).addEventListener('input', () => { for (const [i, item] of items.entries()) if (item && i !== layer) { viewer.world.removeItem(item); items[i] = null; } recolour(); });

function scale() {
  const perPixel = D.mpp * D.width / (viewer.viewport.getContainerSize().x * viewer.viewport.getZoom(true));
  if (!D.mpp || !isFinite(perPixel)) { $('scale').hidden = true; return; }
  const wanted = 140 * perPixel, ten = 10 ** Math.floor(Math.log10(wanted)), um = ten * [5, 2, 1].find(k => k * ten <= wanted);
  $('scale').querySelector('i').style.width = um / perPixel + 'px';
  $('scale').querySelector('b').textContent = um >= 1000 ? um / 1000 + ' mm' : um + ' µm';
  $('scale').querySelector('small').textContent = `${perPixel >= 10 ? perPixel.toFixed(0) : perPixel.toPrecision(2)} µm/px, ${(10 / perPixel).toPrecision(2)}×`;
}
for (const event of ['open', 'animation', 'resize', 'update-viewport']) viewer.addHandler(event, scale);
viewer.addOnceHandler('open', () => { choose(D.maps.length ? 0 : -1); viewer.addHandler('animation-finish', follow); grid(); state.ready = D.maps.length; });

// the grid of regions, and buttons that jump to the most attended ones
const NS = 'http://www.w3.org/2000/svg', regions = D.regions.filter(r => r.score !== null).sort((a, b) => b.score - a.score);
let visited = -1;
const at = (x, y) => viewer.viewport.pixelFromPoint(new OpenSeadragon.Point(x / D.width, y / D.width), true);
function grid() {
  const svg = $('grid'), on = $('gridded').checked;
  svg.style.display = on ? '' : 'none'; state.grid = +on;
  if (!on) return;
  const lines = D.regions.map(r => {
    const n = r.cells, side = r.size / n, path = document.createElementNS(NS, 'path'), go = (...points) => 'M' + points.map(([x, y]) => { const p = at(x, y); return p.x + ' ' + p.y; }).join('L');
    const ends = [[r.x, r.y], [r.x + r.size, r.y], [r.x + r.size, r.y + r.size], [r.x, r.y + r.size]], d = [go(...ends) + 'Z'];
    if (at(r.x, r.y).distanceTo(at(r.x + side, r.y)) > 24) for (let k = 1; k < n; k++) d.push(go([r.x + k * side, r.y], [r.x + k * side, r.y + r.size]), go([r.x, r.y + k * side], [r.x + r.size, r.y + k * side]));
    path.setAttribute('d', d.join(''));
    return path;
  });
  svg.replaceChildren(...lines);
}
function visit(i) {
  if (!regions.length) return;
  visited = (i + regions.length) % regions.length; state.visited = visited;
  toRegion(regions[visited]);
}
function toRegion(r) {
  const pad = r.size * .05;
  viewer.viewport.fitBounds(new OpenSeadragon.Rect((r.x - pad) / D.width, (r.y - pad) / D.width, (r.size + 2 * pad) / D.width, (r.size + 2 * pad) / D.width));
}
regions.slice(0, 8).forEach((r, i) => {
  const b = $('most').querySelector('div').appendChild(document.createElement('button'));
  b.type = 'button'; b.textContent = `${r.name}: ${r.score.toFixed(2)}`; b.addEventListener('click', () => visit(i));
});
$('most').hidden = !regions.length; $('opacity-box').hidden = !levels.length; $('gridded').closest('label').hidden = !D.regions.length;
for (const event of ['open', 'animation', 'resize', 'update-viewport']) viewer.addHandler(event, grid);
$('gridded').addEventListener('change', grid);

// what lies under the cursor
const toSlide = p => { const q = viewer.viewport.pointFromPixel(p, true); return [q.x * D.width, q.y * D.width]; };
const regionAt = (x, y) => D.regions.find(r => x >= r.x && x < r.x + r.size && y >= r.y && y < r.y + r.size);
const length = px => D.mpp ? (px * D.mpp >= 1000 ? (px * D.mpp / 1000).toFixed(2) + ' mm' : (px * D.mpp).toFixed(0) + ' µm') : Math.round(px) + ' px';
function under(x, y) {
  const m = D.maps[layer], v = pictures[layer], r = regionAt(x, y), told = [];
  if (m && v && x >= m.x && x < m.x + m.width && y >= m.y && y < m.y + m.height) {
    const s = share(v, Math.floor((y - m.y) / m.height * v.height) * v.width + Math.floor((x - m.x) / m.width * v.width));
    told.push(isNaN(s) ? 'no value' : number(m.low + s * (m.high - m.low)));
  }
  if (r) told.push(r.name);
  told.push(`${length(x)}, ${length(y)}`);
  return told.join(' · ');
}
viewer.innerTracker.moveHandler = e => { const [x, y] = toSlide(e.position); $('under').textContent = x < 0 || y < 0 || x > D.width || y > D.height ? '' : under(x, y); if (measure.length === 1) ruler([...measure, [x, y]]); };

// a measuring line, from click to click
let measuring = false, measure = [];
function ruler(points = measure) {
  const svg = $('ruler');
  if (points.length < 2) { svg.replaceChildren(); return; }
  const [[ax, ay], [bx, by]] = points, a = at(ax, ay), b = at(bx, by), line = document.createElementNS(NS, 'line'), text = document.createElementNS(NS, 'text'), values = { x1: a.x, y1: a.y, x2: b.x, y2: b.y };
  for (const k in values) line.setAttribute(k, values[k]);
  text.setAttribute('x', (a.x + b.x) / 2 + 6); text.setAttribute('y', (a.y + b.y) / 2 - 6);
  text.textContent = state.measured = length(Math.hypot(bx - ax, by - ay));
  svg.replaceChildren(line, text);
}
function measureOn(on = !measuring) { measuring = on; measure = []; ruler(); $('measure').setAttribute('aria-pressed', on); $('tell').textContent = on ? 'Click where the line begins and where it ends, or press Enter for the middle of the view' : ''; if (on) viewer.canvas.focus(); }
function measureTo(place) { measure = measure.length === 1 ? [...measure, place] : [place]; ruler(); }
viewer.addHandler('canvas-click', e => {
  if (!measuring || !e.quick) return;
  e.preventDefaultAction = true;
  measureTo(toSlide(e.position));
});
// without a mouse, Enter stands for a click on the cross in the middle of the view, and what lies there is told
const centre = () => { const c = viewer.viewport.getCenter(true); return [c.x * D.width, c.y * D.width]; };
let byKey = false;
function cross() { $('cross').toggleAttribute('hidden', !byKey); $('under').setAttribute('aria-live', byKey ? 'polite' : 'off'); if (byKey) $('under').textContent = under(...centre()); }
viewer.addHandler('update-viewport', cross);
document.addEventListener('pointermove', () => { if (byKey) { byKey = false; cross(); } });
for (const event of ['animation', 'resize', 'update-viewport']) viewer.addHandler(event, () => ruler());

// magnification: 10 µm per pixel are 1×
if (D.mpp) {
  const times = [1.25, 2.5, 5, 10, 20, 40].filter(x => 10 / x >= D.mpp / 4);
  $('times').append(new Option('Zoom to', ''), ...times.map(x => new Option(x + '×', x)));
  $('times').addEventListener('change', e => { if (e.target.value) viewer.viewport.zoomTo(D.mpp * D.width * e.target.value / 10 / viewer.viewport.getContainerSize().x); e.target.value = ''; });
} else $('times').hidden = true;
const turn = by => { viewer.viewport.setRotation((viewer.viewport.getRotation() + by) % 360); state.rotation = viewer.viewport.getRotation(); };

// a picture of this view, with everything that is drawn over the slide and the scale bar
function photograph() {
  const from = viewer.drawer.canvas, k = from.width / viewer.viewport.getContainerSize().x, canvas = Object.assign(document.createElement('canvas'), { width: from.width, height: from.height }), c = canvas.getContext('2d');
  c.fillStyle = '#fff'; c.fillRect(0, 0, canvas.width, canvas.height); c.drawImage(from, 0, 0);
  c.scale(k, k);
  c.strokeStyle = '#1d2330';
  for (const path of $('gridded').checked ? $('grid').children : []) c.stroke(new Path2D(path.getAttribute('d')));
  const bar = $('scale'), high = from.height / k, wide = parseFloat(bar.querySelector('i').style.width);
  const words = [bar.hidden ? '' : bar.querySelector('b').textContent, D.name, D.maps[layer] ? `${D.maps[layer].name}, ${number(D.maps[layer].low)} to ${number(D.maps[layer].high)} ${D.maps[layer].units}` : '', D.about, 'not for diagnosis'].filter(Boolean).join(' · ');
  c.font = '13px system-ui, sans-serif';
  c.fillStyle = '#ffffffd0'; c.fillRect(8, high - 40, Math.max(wide || 0, c.measureText(words).width) + 12, 32);
  c.fillStyle = '#111'; if (!bar.hidden) c.fillRect(14, high - 36, wide, 4);
  c.fillText(words, 14, high - 14);
  return canvas;
}
function snapshot() {
  let address;
  try { address = photograph().toDataURL('image/png'); } catch { $('tell').textContent = "A browser lets no page that was opened from disk save a picture: open it with 'hipt view'"; return; }
  Object.assign(document.createElement('a'), { href: address, download: `${D.name}.png` }).click();
}

// a second view beside this one, of this slide or another, that moves along
let partner = null, told = '';
function beside(href) {
  const bare = href === 'index.html' ? '&layer=-1' : '';            // of this slide, the tissue without the map over it
  $('beside-frame').hidden = !href; $('beside-frame').src = href ? href + '#beside=1&' + (bare ? where().replace(/&layer=[^&]*/, bare) : where()) : 'about:blank';
  partner = href ? $('beside-frame').contentWindow : null;
}
const inFrame = new URLSearchParams(location.hash.slice(1)).has('beside');
if (inFrame) { partner = window.parent; document.body.classList.add('beside'); }
// both views show the same part of their slides, in µm where they are known
const unit = D.mpp || 1;
function tellPartner() {
  if (!partner) return;
  const c = viewer.viewport.getCenter(true), view = { hipt: 'view', x: c.x * D.width * unit, y: c.y * D.width * unit, wide: viewer.viewport.getBounds(true).width * D.width * unit, turn: viewer.viewport.getRotation() };
  const text = JSON.stringify(view);
  if (text !== told) { told = text; partner.postMessage(view, '*'); }
}
window.addEventListener('message', e => {
  const v = e.data;
  if (!partner || e.source !== partner || !v || v.hipt !== 'view' || ![v.x, v.y, v.wide, v.turn].every(Number.isFinite)) return;
  told = JSON.stringify(v);
  viewer.viewport.setRotation(v.turn, true);
  viewer.viewport.zoomTo(D.width * unit / v.wide, null, true);
  viewer.viewport.panTo(new OpenSeadragon.Point(v.x / unit / D.width, v.y / unit / D.width), true);
  const c = viewer.viewport.getCenter(true);
  told = JSON.stringify({ hipt: 'view', x: c.x * D.width * unit, y: c.y * D.width * unit, wide: viewer.viewport.getBounds(true).width * D.width * unit, turn: viewer.viewport.getRotation() });
});
for (const event of ['animation', 'rotate']) viewer.addHandler(event, tellPartner);
$('beside').append(new Option('nothing', ''), new Option('this slide without the map', 'index.html'));
$('beside').addEventListener('change', e => beside(e.target.value));

// other slides of the run
if (D.listed) {
  const script = document.createElement('script');
  script.src = '../slides.js';
  script.onload = () => {
    const box = $('slides');
    for (const s of window.HIPT_SLIDES) { const words = [s.name, s.label, s.prediction].filter(Boolean).join(' · '); box.add(new Option(words, s.href)); if (s.name !== D.name) $('beside').add(new Option(s.name, `../${s.href}/index.html`)); }
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
  Enter: () => { if (measuring) measureTo(centre()); else if (hiptViewer.place) hiptViewer.place(centre()); },
  m: () => measureOn(), o: () => turn(90), i: () => snapshot(), n: () => visit(visited + 1), p: () => visit(visited < 0 ? -1 : visited - 1), f: () => full(), '?': () => help.showModal() };
// OpenSeadragon's own keys would act a second time
viewer.innerTracker.keyHandler = null; viewer.innerTracker.keyDownHandler = null;
document.addEventListener('keydown', e => {
  const f = keys[e.key], at = e.target;
  if (!f || e.ctrlKey || e.metaKey || e.altKey || help.open || at.closest('textarea, select, input[type=text]')) return;
  if (at.closest('button, a, summary, input[type=checkbox], input[type=radio]') && (e.key === ' ' || e.key === 'Enter')) return;      // the control is pressed
  if (at.closest('input[type=range], input[type=radio]') && e.key.startsWith('Arrow')) return;
  if (e.key.length === 1 && e.key !== ' ' && !$('letters').checked) return;
  byKey = byKey || e.key === 'Enter' || e.key.startsWith('Arrow');
  e.preventDefault(); f(); cross();
});
// letters as keys can be switched off, for those who talk to their computer or hit keys by accident
try { $('letters').checked = localStorage.getItem('hipt-letters') !== 'off'; } catch { /* a frame without storage */ }
$('letters').addEventListener('change', () => { try { localStorage.setItem('hipt-letters', $('letters').checked ? 'on' : 'off'); } catch { /* as above */ } });
function full() { document.fullscreenElement ? document.exitFullscreen() : $('slide').requestFullscreen(); }
for (const [id, key] of [['zoom-in', '+'], ['zoom-out', '-'], ['home', '0'], ['turn', 'o'], ['full', 'f'], ['help-open', '?'], ['measure', 'm'], ['snapshot', 'i']]) $(id).addEventListener('click', () => keys[key]());

// a link to this very view
function where() {
  const c = viewer.viewport.getCenter(true), z = viewer.viewport.getZoom(true), r = viewer.viewport.getRotation();
  return `x=${Math.round(c.x * D.width)}&y=${Math.round(c.y * D.width)}&z=${+z.toFixed(3)}&layer=${following ? TOKENS : layer}${r ? '&turn=' + r : ''}`;
}
function place() { if (isFinite(viewer.viewport.getZoom(true))) history.replaceState(null, '', '#' + (inFrame ? 'beside=1&' : '') + where()); }
function toPlace() {
  const at = new URLSearchParams(location.hash.slice(1));
  if (at.has('region')) { const r = D.regions.find(r => r.name === at.get('region')); if (r) toRegion(r); return; }
  const [x, y, z] = ['x', 'y', 'z'].map(k => at.has(k) && at.get(k) !== '' ? +at.get(k) : NaN);
  if (!isFinite(x + y + z) || z <= 0) return;                       // no link to a view, or a damaged one: the whole slide
  viewer.viewport.zoomTo(z, null, true);
  viewer.viewport.panTo(new OpenSeadragon.Point(x / D.width, y / D.width), true);
  if (isFinite(+at.get('turn')) && at.has('turn')) turn(+at.get('turn') - viewer.viewport.getRotation());
  if (at.get('layer') === TOKENS) toLevel(levels.indexOf(TOKENS)); else if (at.has('layer') && +at.get('layer') >= -1 && +at.get('layer') < D.maps.length) choose(+at.get('layer'));
}
viewer.addOnceHandler('open', () => { toPlace(); for (const event of ['animation-finish', 'rotate']) viewer.addHandler(event, place); });
window.addEventListener('hashchange', toPlace);

// in a notebook, the kernel says where to go
async function led() {
  const token = (await (await fetch('session.json')).json()).view;
  for (;;) {
    await new Promise(r => setTimeout(r, 300));
    const c = viewer.viewport.getCenter(true), b = viewer.viewport.getBounds(true);
    const view = { x: c.x * D.width, y: c.y * D.width, wide: b.width * D.width, high: b.height * D.width, layer, opacity: opacity() };
    const answer = document.hidden ? null : await fetch('view', { method: 'POST', headers: { 'X-HIPT-Token': token }, body: JSON.stringify(view) }).catch(() => null);
    if (!answer || !answer.ok) { await new Promise(r => setTimeout(r, 3000)); continue; }
    const to = await answer.json(), r = D.regions.find(r => r.name === to.region);
    if (r) toRegion(r);
    if (to.zoom) viewer.viewport.zoomTo(to.zoom);
    if (to.x !== undefined) viewer.viewport.panTo(new OpenSeadragon.Point(to.x / D.width, to.y / D.width));
  }
}
if (D.live && new URLSearchParams(location.hash.slice(1)).has('framed')) viewer.addOnceHandler('open', led);
window.hiptViewer = { viewer, D, choose, items, keys, agreed: agreement, toRegion, regionAt, toSlide, at, snapshot, photograph, measureOn, centre };
if (D.live) viewer.addOnceHandler('open', () => notes().catch(e => { state.error = e.message; }));
})();
