// Notes on a live page. Every change is sent to the server at once, note by note, with the version that this page knew;
// what other tabs, other people or QuPath have changed meanwhile comes back with the answer.
(async () => {
'use strict';
const { viewer, D } = hiptViewer, $ = id => document.getElementById(id), state = document.body.dataset;
const session = await (await fetch('session.json')).json();
if (!session.token) return;
const step = D.tiled.step;                 // Annotorious counts in pixels of the finest tile level
const notes = new Map();                   // id -> note as the page shows it
const dirty = new Set();                   // ids that the server has not got yet
const undone = [];                         // [id, what it was before], the latest last
const flying = new Set();                  // ids that are on their way
const page = crypto.randomUUID();          // with every request goes who sends it and which one it is, as two may overtake
let failed = '', turn = 0, accepted = 0, flights = 0, waiting = null, chosen = null, retry = null, classes = session.classes;

const css = color => `rgb(${color.join(',')})`;
const style = a => { const c = css((notes.get(a.id) || classes[0]).color); return { fill: c, fillOpacity: .15, stroke: c, strokeWidth: 2 }; };
const annotator = AnnotoriousOSD.createOSDAnnotator(viewer, { drawingMode: 'click', drawingEnabled: false, style });
const store = annotator.state.store;
// the drawing tool's layer and its handles do nothing that a key could ask for, so Tab passes them by; they are named
function name(layer) { for (const e of [layer, ...layer.querySelectorAll('[tabindex="0"]')]) { e.setAttribute('tabindex', '-1'); e.setAttribute('aria-label', e === layer ? 'Shapes' : 'Corner of a shape'); } }
for (const layer of $('slide').querySelectorAll('svg[tabindex]')) { name(layer); new MutationObserver(() => name(layer)).observe(layer, { childList: true, subtree: true }); }

const tools = ['polygon', 'rectangle', 'freehand', 'point'];

// shapes
const ringOf = a => {
  const g = a.target.selector.geometry, b = g.bounds;
  const p = a.target.selector.type === 'RECTANGLE' ? [[b.minX, b.minY], [b.maxX, b.minY], [b.maxX, b.maxY], [b.minX, b.maxY]] : g.points;
  const apart = p.filter(([x, y], i) => !i || x !== p[i - 1][0] || y !== p[i - 1][1]);      // a double click sets a corner twice
  return [...apart, apart[0]].map(([x, y]) => [x * step, y * step]);
};
function shapeOf(n) {
  const points = n.points.slice(0, -1).map(([x, y]) => [x / step, y / step]), xs = points.map(p => p[0]), ys = points.map(p => p[1]);
  const bounds = { minX: Math.min(...xs), minY: Math.min(...ys), maxX: Math.max(...xs), maxY: Math.max(...ys) };
  return { id: n.id, bodies: [], target: { annotation: n.id, selector: { type: 'POLYGON', geometry: { points, bounds } } } };
}
const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);
function draw(n) {
  if (!n.points) return;
  const there = store.getAnnotation(n.id);
  if (!there) store.addAnnotation(shapeOf(n), 'REMOTE');
  else if (!same(ringOf(there), n.points)) store.updateAnnotation(n.id, shapeOf(n), 'REMOTE');
}
function erase(id) { if (store.getAnnotation(id)) store.deleteAnnotation(id, 'REMOTE'); }

// saving
const kept = n => n && { name: n.name, color: n.color, text: n.text, points: n.points, spot: n.spot, kind: n.kind };
function touch(id, before) {
  undone.push([id, before]);
  dirty.add(id); later();
}
function tell(text) { $('saved').textContent = text; state.saving = +(dirty.size > 0 || flights > 0); $('undo').disabled = !undone.length; }
function later(ms = 400) { clearTimeout(waiting); tell(failed || 'Saving …'); waiting = setTimeout(flush, ms); }
function changeOf(id) {
  const n = notes.get(id), base = n ? n.version : null;
  if (!n || n.gone) return { id, base, gone: true };
  return { id, base, name: n.name, color: n.color, text: n.text, ring: base !== null && !n.moved ? null : n.spot ? [n.spot] : n.points || null };
}
// a page that is being left sends everything that no answer has come for, without waiting
async function flush(leaving = false) {
  clearTimeout(waiting); clearTimeout(retry);
  if (flights && leaving !== true) return;
  const ids = [...new Set([...dirty, ...(leaving === true ? flying : [])])];
  if (!ids.length) return;
  const now = ++turn, as = new Map(ids.map(id => [id, JSON.stringify(kept(notes.get(id)))]));
  const body = JSON.stringify({ author: $('author').value.trim(), page, turn: now, changes: ids.map(changeOf) });
  flights++; dirty.clear(); for (const id of ids) flying.add(id);
  tell(failed || 'Saving …');
  const landed = () => { if (!--flights) flying.clear(); };
  try {
    const keepalive = leaving === true && body.length < 20000;      // browsers allow 64 kB in all
    const signal = leaving === true ? undefined : AbortSignal.timeout(8000);
    const answer = await fetch('notes', { method: 'POST', keepalive, signal, headers: { 'Content-Type': 'application/json', 'X-HIPT-Token': session.token }, body });
    if (answer.status !== 200 && answer.status !== 409) throw new Error(answer.statusText);
    const result = await answer.json();
    landed(); failed = '';
    for (const id of ids) if (JSON.stringify(kept(notes.get(id))) !== as.get(id)) dirty.add(id);   // changed again meanwhile
    if (now > accepted) { accepted = now; accept(result, result.conflicts || []); state.saved = result.notes.length; }
    if (dirty.size) later(); else if (!flights) tell(result.notes.length === 1 ? 'The note is saved' : `All ${result.notes.length} notes are saved`);
  } catch (e) {
    landed();
    for (const id of ids) dirty.add(id);
    failed = `NOT SAVED: ${e instanceof TypeError || e.name === 'TimeoutError' ? "the server does not answer; is 'hipt view' still running?" : e.message + '.'} Trying again; do not close this page`;
    tell(failed);
    retry = setTimeout(flush, 3000);
  }
}
// what the server has is what counts, except for notes that were changed here and are not saved yet
function accept(result, conflicts) {
  const there = new Map(result.notes.map(n => [n.id, n]));
  for (const [id, n] of notes) if (!there.has(id) && !dirty.has(id) && !conflicts.includes(id)) { notes.delete(id); erase(id); }
  for (const [id, n] of there) {
    const mine = notes.get(id);
    if (conflicts.includes(id)) continue;
    if (dirty.has(id)) { if (mine) mine.version = n.version; continue; }
    notes.set(id, n); draw(n);
  }
  annotator.setStyle(style);
  for (const id of conflicts) ask(id, there.get(id));
  if (chosen && !notes.has(chosen)) select(null);
  hiptViewer.agreed(result.agreement); list();
}
function ask(id, theirs) {
  const box = document.createElement('div'), mine = notes.get(id);
  box.className = 'conflict'; box.setAttribute('role', 'alert');
  box.append(theirs ? `Changed elsewhere: ${theirs.name} “${theirs.text}”${theirs.author ? ' by ' + theirs.author : ''}. ` : 'Deleted elsewhere. ');
  const button = (text, run) => { const b = box.appendChild(document.createElement('button')); b.type = 'button'; b.textContent = text; b.addEventListener('click', () => { box.remove(); run(); list(); }); };
  button(mine && !mine.gone ? 'Keep mine' : 'Delete it', () => { if (mine) { mine.version = theirs ? theirs.version : null; mine.moved = true; } dirty.add(id); later(0); });
  button(theirs ? 'Take theirs' : 'Delete it', () => { notes.delete(id); erase(id); if (theirs) { notes.set(id, theirs); draw(theirs); } });
  $('conflicts').append(box); state.conflicts = $('conflicts').children.length;
}

// changes
function set(id, values) {
  const old = notes.get(id), before = kept(old);
  notes.set(id, { version: null, author: '', date: '', text: '', kind: 'Polygon', ...old, ...values });
  if (values.points) notes.get(id).moved = true;
  touch(id, before); list(); annotator.setStyle(style);
}
function remove(id) {
  const n = notes.get(id);
  touch(id, kept(n));
  n.gone = true; erase(id); select(null); list();
}
function undo() {
  const [id, before] = undone.pop() || [];
  if (!id) return;
  const n = notes.get(id);
  if (before) { notes.set(id, { version: null, author: '', date: '', kind: 'Polygon', ...n, ...before, id, gone: false, moved: true }); draw(notes.get(id)); dots(); }
  else if (n) { n.gone = true; erase(id); select(null); }
  dirty.add(id); later(0); list();
}
function box(id) { const n = notes.get(id); if (n.spot) return [...n.spot, ...n.spot]; const xs = n.points.map(p => p[0]), ys = n.points.map(p => p[1]); return [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)]; }

// the panel
function select(id, focus = false) {
  chosen = id; $('note').hidden = !id;
  if (!id) return;
  const n = notes.get(id);
  $('class').value = n.name; $('text').value = n.text; $('color').value = '#' + n.color.map(v => v.toString(16).padStart(2, '0')).join('');
  $('by').textContent = [n.author, n.date && new Date(n.date).toLocaleString()].filter(Boolean).join(', ');
  if (focus) $('text').focus();
}
function list() {
  const known = new Map(classes.map(c => [c.name, c]));
  for (const n of notes.values()) if (!known.has(n.name)) known.set(n.name, { name: n.name, color: n.color });
  classes = [...known.values()];
  const now = $('class').value;
  $('class').replaceChildren(...classes.map(c => new Option(c.name)), new Option('New class …', ''));
  if (known.has(now)) $('class').value = now;
  const shown = [...notes.values()].filter(n => !n.gone);
  $('list').replaceChildren(...shown.map(n => {
    const b = document.createElement('button'), dot = b.appendChild(document.createElement('i'));
    b.type = 'button'; dot.style.background = css(n.color); b.append(` ${n.name}${n.text ? ': ' + n.text : ''}${n.points || n.kind === 'Point' ? '' : ` (${n.kind}, kept as it is)`}`);
    b.addEventListener('click', () => { go(n); if (n.points) annotator.setSelected(n.id); select(n.id); });
    const li = document.createElement('li'); li.append(b); return li;
  }));
  state.notes = shown.length; tell($('saved').textContent); dots();
}
function go(n) {
  const [x0, y0, x1, y1] = n.points || n.spot ? box(n.id) : n.bounds, pad = Math.max(x1 - x0, y1 - y0, 400) * .3;
  viewer.viewport.fitBounds(new OpenSeadragon.Rect((x0 - pad) / D.width, (y0 - pad) / D.width, (x1 - x0 + 2 * pad) / D.width, (y1 - y0 + 2 * pad) / D.width));
}
// points, which the drawing tool does not know
const NS = 'http://www.w3.org/2000/svg';
function dots() {
  const of = n => n.spot || (n.kind === 'Point' && n.bounds ? n.bounds.slice(0, 2) : null);
  $('dots').replaceChildren(...[...notes.values()].filter(n => !n.gone && of(n)).map(n => {
    const p = hiptViewer.at(...of(n)), dot = document.createElementNS(NS, 'circle');
    for (const [k, v] of Object.entries({ cx: p.x, cy: p.y, r: n.id === chosen ? 8 : 6, fill: css(n.color) })) dot.setAttribute(k, v);
    return dot;
  }));
}
for (const event of ['animation', 'resize', 'update-viewport']) viewer.addHandler(event, dots);

// a point is a click, a freehand shape follows the mouse while its button is down
let tool = null, trail = null;
const ours = ['point', 'freehand', 'rectangle'];
function put(values) { const id = crypto.randomUUID(); set(id, { id, name: classes[0].name, color: classes[0].color, ...values }); draw(notes.get(id)); drawing(null); list(); if (notes.get(id).points) annotator.setSelected(id); select(id, true); }
function thinned(points, least) { const out = [points[0]]; for (const p of points) if (Math.hypot(p[0] - out[out.length - 1][0], p[1] - out[out.length - 1][1]) >= least) out.push(p); return out; }
// a rectangle is dragged from corner to corner, or clicked at both
const corner = ([x0, y0], [x1, y1]) => [[x0, y0], [x1, y0], [x1, y1], [x0, y1]];
viewer.addHandler('canvas-press', e => { if (tool === 'freehand' || (tool === 'rectangle' && !corners.length)) trail = [hiptViewer.toSlide(e.position)]; });
viewer.addHandler('canvas-drag', e => {
  if (!trail) return;
  e.preventDefaultAction = true;
  if (tool === 'rectangle') trail.length = 1;
  trail.push(hiptViewer.toSlide(e.position));
  const path = tool === 'rectangle' ? [...corner(...trail), trail[0]] : trail;
  const line = document.createElementNS(NS, 'polyline');
  line.setAttribute('points', path.map(p => { const q = hiptViewer.at(...p); return `${q.x},${q.y}`; }).join(' '));
  $('ruler').replaceChildren(line);
});
viewer.addHandler('canvas-release', () => {
  if (!trail) return;
  const pixel = D.width * viewer.viewport.getBounds(true).width / viewer.viewport.getContainerSize().x, box = tool === 'rectangle';
  const dragged = trail.length > 1 && Math.hypot(trail[trail.length - 1][0] - trail[0][0], trail[trail.length - 1][1] - trail[0][1]) > 3 * pixel;
  const ring = box ? (dragged ? corner(trail[0], trail[trail.length - 1]) : []) : thinned(trail, 2 * pixel).slice(0, 4000);
  trail = null; $('ruler').replaceChildren();
  if (ring.length > 2) put({ points: [...ring, ring[0]] });
});
viewer.addHandler('canvas-click', e => { if (tool === 'rectangle' && e.quick) { e.preventDefaultAction = true; place(hiptViewer.toSlide(e.position)); } else if (tool === 'point' && e.quick) { e.preventDefaultAction = true; put({ kind: 'Point', points: null, spot: hiptViewer.toSlide(e.position) }); } });

// the same without a mouse: each Enter is a corner in the middle of the view
let corners = [];
function place([x, y]) {
  if (!tool || tool === 'freehand') return;
  if (tool === 'point') return put({ kind: 'Point', points: null, spot: [x, y] });
  const first = corners[0], last = corners[corners.length - 1], again = last && hiptViewer.at(...last).distanceTo(hiptViewer.at(x, y)) < 3;
  if (!again) corners.push([x, y]);
  const box = tool === 'rectangle' && corners.length === 2;
  if (box) corners = corner(first, [x, y]);
  if (box || (again && corners.length > 2)) { const ring = corners; corners = []; sketch(); put({ points: [...ring, ring[0]] }); } else sketch();
}
function sketch() { if (trail || !tool) return; const line = document.createElementNS(NS, 'polyline'); line.setAttribute('points', corners.map(p => { const q = hiptViewer.at(...p); return `${q.x},${q.y}`; }).join(' ')); $('ruler').replaceChildren(line); }
viewer.addHandler('update-viewport', () => { if (corners.length) sketch(); });

function drawing(what) {
  tool = what; if (corners.length) { corners = []; $('ruler').replaceChildren(); } if (what) hiptViewer.measureOn(false);
  const theirs = what && !ours.includes(what);
  if (theirs) annotator.setDrawingTool(what);
  annotator.setDrawingEnabled(!!theirs); state.drawing = +!!what;
  // the double click that ends a polygon is not to zoom
  setTimeout(() => { viewer.gestureSettingsMouse.dblClickToZoom = !+state.drawing; }, what ? 0 : 600);
  for (const t of tools) $('draw-' + t).setAttribute('aria-pressed', what === t);
  $('hint').textContent = { polygon: 'Click each corner, double-click to finish', rectangle: 'Drag from corner to corner, or click both', freehand: 'Draw with the button held down', point: 'Click the place' }[what] || '';
  if (what) viewer.canvas.focus();
  if (what) $('hint').textContent += (what === 'freehand' ? '' : '; or Enter for the middle of the view') + ', Esc to stop';
}
function mark(name) {
  const c = viewer.viewport.getCenter(true), x = c.x * D.width, y = c.y * D.width, r = D.regions.find(r => x >= r.x && x < r.x + r.size && y >= r.y && y < r.y + r.size);
  if (!r) { $('hint').textContent = 'No region in the middle of the view'; return; }
  const ring = [[r.x, r.y], [r.x + r.size, r.y], [r.x + r.size, r.y + r.size], [r.x, r.y + r.size], [r.x, r.y]], want = [r.x, r.y, r.x + r.size, r.y + r.size];
  const old = [...notes.values()].find(n => !n.gone && n.points && n.points.length === 5 && box(n.id).every((v, i) => Math.abs(v - want[i]) < step));
  const id = old ? old.id : crypto.randomUUID(), c2 = classes.find(c => c.name === name);
  set(id, old ? { name, color: c2.color } : { id, name, color: c2.color, points: ring });
  draw(notes.get(id)); select(id);
}

store.observe(({ changes }) => {
  for (const a of changes.created || []) { set(a.id, { id: a.id, name: classes[0].name, color: classes[0].color, points: ringOf(a) }); drawing(null); annotator.setSelected(a.id); select(a.id, true); }
  for (const u of changes.updated || []) { const ring = ringOf(u.newValue), n = notes.get(u.newValue.id); if (n && !same(ring, n.points)) set(n.id, { points: ring }); }
}, { origin: 'LOCAL' });
annotator.on('selectionChanged', l => select(l.length && notes.has(l[0].id) ? l[0].id : null));

$('class').addEventListener('change', () => {
  let name = $('class').value, c = classes.find(c => c.name === name);
  if (!c) {
    name = (prompt('Name of the new class') || '').trim().slice(0, 100);
    if (!name) { select(chosen); return; }
    c = classes.find(c => c.name === name) || { name, color: [[0, 158, 115], [204, 121, 167], [230, 159, 0], [86, 180, 233], [148, 103, 189], [120, 120, 40]][classes.length % 6] };
  }
  set(chosen, { name: c.name, color: c.color }); select(chosen);
});
$('color').addEventListener('change', () => {
  const hex = $('color').value, color = [1, 3, 5].map(k => parseInt(hex.slice(k, k + 2), 16)), name = notes.get(chosen).name;
  classes.find(c => c.name === name).color = color;
  for (const n of [...notes.values()]) if (n.name === name && !n.gone) set(n.id, { color });
});
$('text').addEventListener('input', () => { const n = notes.get(chosen); if (n && n.text !== $('text').value) set(chosen, { text: $('text').value }); });
$('text').addEventListener('keydown', e => { if (e.key === 'Escape') { e.stopPropagation(); $('text').blur(); } });
$('note').addEventListener('submit', e => e.preventDefault());
$('drop').addEventListener('click', () => remove(chosen));
$('undo').addEventListener('click', undo);
for (const t of tools) $('draw-' + t).addEventListener('click', () => drawing($('draw-' + t).getAttribute('aria-pressed') === 'true' ? null : t));
// the same annotations in QuPath: a file to take away, and one to bring
$('fetch').addEventListener('click', async () => { await flush(); Object.assign(document.createElement('a'), { href: 'notes.geojson', download: `${D.name}.geojson` }).click(); });
$('bring').addEventListener('change', async () => {
  const file = $('bring').files[0];
  $('bring').value = '';
  if (!file) return;
  await flush();
  const answer = await fetch('imported', { method: 'POST', headers: { 'X-HIPT-Token': session.token }, body: await file.arrayBuffer() });
  if (!answer.ok) { tell(`${file.name} was not added: ${answer.statusText}`); return; }
  const result = await answer.json();
  accept(result, []); tell(`${result.new} new from ${file.name}`); state.imported = result.new;
});
$('yes').addEventListener('click', () => mark('Relevant')); $('no').addEventListener('click', () => mark('Not relevant'));
try { $('author').value = localStorage.getItem('hipt-author') || ''; } catch { /* a frame without storage */ }
$('author').addEventListener('change', () => { try { localStorage.setItem('hipt-author', $('author').value.trim()); } catch { /* as above */ } });
// what other tabs and other people have saved meanwhile
async function refresh() {
  if (document.hidden || dirty.size || flights || $('conflicts').children.length || +state.drawing || $('note').contains(document.activeElement)) return;
  const before = accepted, answer = await fetch('session.json').catch(() => null);
  if (!answer || !answer.ok) return;
  const now = await answer.json();
  const known = [...notes.values()].map(n => n.id + n.version).sort(), there = now.notes.map(n => n.id + n.version).sort();
  if (before === accepted && !dirty.size && !flights && !same(known, there)) { accept({ notes: now.notes, agreement: now.agreement }, []); state.saved = now.notes.length; }
}
window.addEventListener('focus', refresh); setInterval(refresh, 5000);
const open = () => dirty.size || flights || $('conflicts').children.length;
window.addEventListener('beforeunload', e => { if (open()) { flush(true); e.preventDefault(); } });
window.addEventListener('pagehide', () => { if (dirty.size) flush(true); });
document.addEventListener('visibilitychange', () => { if (document.hidden && dirty.size) flush(true); });

Object.assign(hiptViewer.keys, {
  d: () => drawing(+state.drawing ? null : 'polygon'), e: () => drawing(+state.drawing ? null : 'freehand'), r: () => mark('Relevant'), x: () => mark('Not relevant'), u: undo,
  Escape: () => { if (+state.drawing) { annotator.cancelDrawing && annotator.cancelDrawing(); drawing(null); } else { annotator.cancelSelected(); select(null); } },
  Delete: () => chosen && remove(chosen), Backspace: () => chosen && remove(chosen) });
hiptViewer.leave = async () => { await flush(); if ($('conflicts').children.length) { $('conflicts').scrollIntoView(); $('conflicts').querySelector('button').focus(); } for (let i = 0; i < 50 && (dirty.size || flights); i++) await new Promise(r => setTimeout(r, 50)); return !open(); };
Object.assign(hiptViewer, { place, annotator: () => annotator, notes: () => [...notes.values()].filter(n => !n.gone) });
$('notes').hidden = false; $('mark').hidden = !D.regions.length;
for (const e of document.querySelectorAll('.with-notes')) e.hidden = false;
accept({ notes: session.notes, agreement: session.agreement }, []);
tell(notes.size ? `${notes.size} note${notes.size > 1 ? 's' : ''}` : '');
})().catch(e => { document.body.dataset.error = e.message; });
