"""Render README.md from the home page's notebook; with `--check`, only say whether it is in step

Pictures go to docs/images; links between notebooks become links to the files in the repository."""
import base64
import posixpath
import re
import sys
from pathlib import Path

from fastcore.nbio import read_nb

root = Path(__file__).resolve().parents[1]
index, readme, images = root/'nbs'/'index.ipynb', root/'README.md', root/'docs'/'images'
header = '<!-- Rendered from nbs/index.ipynb by docs/readme.py: change it there -->\n\n'


def is_hidden(cell): return bool(re.search(r'^#\|\s*(hide|default_exp|export)', cell.source, flags=re.M))


def fix_markdown(text):
    "Callouts become quotes, notebook links lead into the repository"
    quote = lambda m: '\n'.join('> ' + l for l in re.sub(r'^#+ (.+)\n', r'**\1.** ', m[1].strip()).splitlines())
    text = re.sub(r'^:::\s*\{\.callout[^}]*\}\s*\n(.*?)^:::\s*$', quote, text, flags=re.M | re.S)
    here = lambda m: '](' + posixpath.normpath('nbs/' + m[1]) + ')'
    return re.sub(r'\]\((?!https?:|#)([^)\s]+)\)', here, text)


def render(nb):
    "Text of the README, and the pictures it shows: `{path: bytes}`"
    parts, pictures = [], {}
    for cell in nb.cells:
        if cell.cell_type == 'markdown': parts.append(fix_markdown(cell.source.strip()))
        elif not is_hidden(cell):
            code = re.sub(r'^#\|.*\n?', '', cell.source, flags=re.M).strip()
            if not re.search(r'^#\|\s*echo:\s*false', cell.source, flags=re.M): parts.append(f'```python\n{code}\n```')
            for data in (o.get('data', {}) for o in cell.get('outputs', [])):
                kind = next((k for k in ('png', 'jpeg') if f'image/{k}' in data), None)
                if kind:
                    path = images/f'index-{len(pictures) + 1}.{kind}'
                    pictures[path] = base64.b64decode(''.join(data[f'image/{kind}']))
                    parts.append(f'![{alt_text(cell)}]({path.relative_to(root).as_posix()})')
    return header + '\n\n'.join(parts) + '\n', pictures


def alt_text(cell):
    "What the picture shows: the cell's `fig-cap`"
    found = re.search(r'^#\|\s*fig-cap:\s*(.+)$', cell.source, flags=re.M)
    return found[1].strip() if found else 'figure'


def stale():
    "The files that are not what the notebook says: `{path: wanted bytes}`, None for one that should not be there"
    text, pictures = render(read_nb(index))
    wanted = {readme: text.encode(), **pictures}
    old = {p: None for p in images.glob('index-*') if p not in wanted}
    return old | {p: data for p, data in wanted.items() if not p.exists() or p.read_bytes() != data}


def main(check=False):
    old = stale()
    if check and old:
        names = ', '.join(p.name for p in old)
        sys.exit(f'Out of step with nbs/index.ipynb: {names}. Run docs/readme.py')
    for path, data in old.items():
        path.parent.mkdir(exist_ok=True)
        if data is None: path.unlink()
        else: path.write_bytes(data)


if __name__ == '__main__': main('--check' in sys.argv[1:])
