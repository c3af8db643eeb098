// Deep-zoom page of one slide. Everything it shows is in data.js (window.HIPT); all names enter the page as text, never as markup.
(() => {
'use strict';
const D = window.HIPT, $ = id => document.getElementById(id), state = document.body.dataset;
window.addEventListener('error', e => { state.error = e.message || 'a file is missing'; }, true);
document.title = D.name; $('name').textContent = D.name; $('label').textContent = D.label;

const viewer = OpenSeadragon({
  element: $('slide'), drawer: 'canvas', showNavigationControl: false, showNavigator: true, navigatorPosition: 'BOTTOM_RIGHT', navigatorBackground: '#f3f3f3', navigatorBorderColor: '#888',
  maxZoomPixelRatio: 4, animationTime: .5, imageSmoothingEnabled: true, placeholderFillStyle: '#f3f3f3',
  tileSources: [{ width: D.tiled.span, tileSource: {
    width: D.tiled.width, height: D.tiled.height, tileSize: D.tiled.tile, tileOverlap: 0, minLevel: 0, maxLevel: D.tiled.levels - 1,
    getTileUrl: (level, x, y) => `tiles/${level}/${x}_${y}.jpg` } }],
});
let layer = -1, hidden = false;
const items = D.maps.map(() => null), opacity = () => hidden ? 0 : $('opacity').value / 100;
viewer.addHandler('tile-load-failed', e => { state.error = 'tile ' + e.tile.cacheKey; });

// a map is one image laid over the part of the slide that it covers; width 1 is the slide's width
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
  $('low').textContent = m.low; $('high').textContent = m.high; $('units').textContent = m.units;
}
function choose(i) {
  layer = Math.max(-1, Math.min(D.maps.length - 1, i));
  if (layer >= 0 && items[layer] === null) { items[layer] = undefined; load(layer); }
  $('layers').querySelectorAll('input')[layer + 1].checked = true;
  draw();
}
function add(name, group, i) {
  const box = $('layers');
  if (group && group !== box.dataset.group) box.appendChild(document.createElement('b')).textContent = group;
  box.dataset.group = group;
  const label = box.appendChild(document.createElement('label')), input = document.createElement('input');
  input.type = 'radio'; input.name = 'layer'; input.addEventListener('change', () => choose(i));
  label.append(input, ' ' + name);
}
add('slide only', '', -1);
D.maps.forEach((m, i) => add(m.name, m.group, i));
$('opacity').addEventListener('input', () => { hidden = false; draw(); });

function scale() {
  const perPixel = D.mpp * D.width / (viewer.viewport.getContainerSize().x * viewer.viewport.getZoom(true));
  if (!D.mpp || !isFinite(perPixel)) { $('scale').hidden = true; return; }
  const wanted = 140 * perPixel, ten = 10 ** Math.floor(Math.log10(wanted)), um = ten * [5, 2, 1].find(k => k * ten <= wanted);
  $('scale').querySelector('i').style.width = um / perPixel + 'px';
  $('scale').querySelector('b').textContent = um >= 1000 ? um / 1000 + ' mm' : um + ' µm';
}
for (const event of ['open', 'animation', 'resize', 'update-viewport']) viewer.addHandler(event, scale);
viewer.addOnceHandler('open', () => { choose(D.maps.length ? 0 : -1); state.ready = D.maps.length; });

const step = k => { $('opacity').value = +$('opacity').value + k; hidden = false; draw(); };
const keys = { ArrowDown: () => choose(layer + 1), ArrowUp: () => choose(layer - 1), '[': () => step(-5), ']': () => step(5), ' ': () => { hidden = !hidden; draw(); }, '0': () => viewer.viewport.goHome() };
viewer.innerTracker.keyHandler = null; viewer.innerTracker.keyDownHandler = null;
document.addEventListener('keydown', e => { const f = keys[e.key]; if (f && !(e.ctrlKey || e.metaKey || e.altKey) && !(e.target.id === 'opacity' && e.key.startsWith('Arrow'))) { e.preventDefault(); f(); } });
window.hiptViewer = { viewer, choose, items };
})();
