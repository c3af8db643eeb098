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
    body.append(...rows);
  });
});
const find = document.getElementById('find'), count = document.getElementById('count');
find.addEventListener('input', () => {
  const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const row of rows) shown += !(row.hidden = !words.every(w => row.textContent.toLowerCase().includes(w)));
  count.textContent = `${shown} of ${rows.length} slides`;
});
// how many notes each slide has, where there is a server that keeps them
if (location.protocol.startsWith('http')) fetch('notes.json').then(a => a.ok ? a.json() : {}).then(notes => {
  for (const row of rows) row.cells[6].textContent = notes[decodeURIComponent(row.dataset.href)] || '';
}).catch(() => {});
})();
