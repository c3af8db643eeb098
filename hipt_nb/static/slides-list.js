// The list of slides: sorted by a click on a column's head, narrowed by a search; without this script it can still be read
(() => {
'use strict';
const table = document.querySelector('table'), body = table.tBodies[0], rows = [...body.rows], heads = [...table.tHead.rows[0].cells];
const text = (row, k) => row.cells[k].textContent.trim();
heads.forEach((head, k) => {
  if (!k) return;
  const button = document.createElement('button');
  button.type = 'button'; button.textContent = head.textContent;
  head.replaceChildren(button);
  button.addEventListener('click', () => {
    const down = head.ariaSort === 'ascending';
    heads.forEach(h => { h.ariaSort = null; }); head.ariaSort = down ? 'descending' : 'ascending';
    const sign = down ? -1 : 1;
    rows.sort((a, b) => {
      const [x, y] = [text(a, k), text(b, k)];
      if (!x || !y) return !x - !y;                                  // nothing known comes last, either way
      return sign * x.localeCompare(y, 'en', { numeric: true });
    });
    body.append(...rows); remember();
  });
});
const find = document.getElementById('find'), count = document.getElementById('count');
// what was searched and how the list is sorted stand in the address, so that Back finds them again
function remember() { const k = heads.findIndex(h => h.ariaSort); history.replaceState(null, '', '#' + new URLSearchParams({ ...(find.value && { find: find.value }), ...(k > 0 && { sort: k, down: +(heads[k].ariaSort === 'descending') }) })); }
find.addEventListener('input', () => {
  remember();
  const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const row of rows) shown += !(row.hidden = !words.every(w => row.textContent.toLowerCase().includes(w)));
  count.textContent = `${shown} of ${rows.length} slides`;
});
const at = new URLSearchParams(location.hash.slice(1)), sorted = heads[+at.get('sort')];
if (sorted && sorted.querySelector('button')) for (let i = 0; i <= +(at.get('down') === '1'); i++) sorted.querySelector('button').click();
if (at.get('find')) { find.value = at.get('find'); find.dispatchEvent(new Event('input')); }
// how many notes each slide has, where there is a server that keeps them
if (location.protocol.startsWith('http')) fetch('notes.json').then(a => a.ok ? a.json() : {}).then(notes => {
  for (const row of rows) row.cells[6].textContent = notes[decodeURIComponent(row.dataset.href)] || '';
}).catch(() => {});
})();
