"""Turn the notebooks into pages that Sphinx reads: nbdev adds the API sections and the links, this file the rest

Nothing is executed here: pages show the outputs that the notebooks store."""
import base64
import hashlib
import html
import inspect
import re
import shutil
import subprocess
import sys
import tarfile
import warnings
from enum import Enum
from importlib import import_module
from itertools import groupby
from pathlib import Path

import yaml
from fastcore.docments import MarkdownRenderer
from fastcore.nbio import mk_cell, read_nb, write_nb
from nbdev.config import get_config, nbpath2html
from nbdev.doclinks import _get_exps
from nbdev.process import Processor
from nbdev.processors import FilterDefaults, _show_docs, add_show_docs, exec_show_docs

import example
import licences
from book import notebooks

root = Path(__file__).resolve().parents[1]
src, nbs = root/'docs'/'_src', root/'nbs'
cfg = get_config(root)
lib = cfg.lib_name
doc_url = cfg.doc_url.rstrip('/')

# Sidebar groups by chapter number, so that a new chapter finds its own place
groups = [('Slides', 0, 4), ('Model', 5, 7), ('Training', 8, 12), ('Results', 13, 99)]
mathjax = 'mathjax@3.2.2'
mathjax_sha512 = 'Bt+SSVU8eBG27zChVewOicYs7Xsdt40qm4+UpHyX7k0/O9NliPc+x77k1/FEsPsjKPZGJvtRZM1vO+geW0OhGw=='  # npm's own


# Pages

def page_name(path): return nbpath2html(path.relative_to(nbs)).with_suffix('').as_posix()


def group_of(path):
    "The sidebar group of a notebook, or None for the home page; pages without a number come first"
    folder, number = path.relative_to(nbs).parent.as_posix(), re.match(r'\d+', path.name)
    if folder != '.': return folder.split('/')[0].capitalize()
    if number: return next(g for g, low, high in groups if low <= int(number[0]) <= high)
    return None if path.name == 'index.ipynb' else 'Overview'


def toctrees(paths):
    "Hidden tables of contents, one a sidebar group"
    found = {}
    for path in paths: found.setdefault(group_of(path), []).append(page_name(path))
    found.setdefault('Overview', []).append('licences')
    return '\n'.join(f'```{{toctree}}\n:hidden:\n:caption: {g}\n\n' + '\n'.join(names) + '\n```\n'
                     for g, names in sorted(found.items(), key=lambda o: o[0] != 'Overview') if g)


# API sections

def anchor(name):
    "Where a name's API section is: nbdev's own anchor, but never one that a heading of the story could have too"
    return name.lower() if re.search('[._]', name) else f'api.{name.lower()}'


def source_link(name, module):
    line = _get_exps(f'{lib}/{module}.py').get(name)
    return f'{cfg.git_url}/blob/{cfg.branch}/{lib}/{module}.py' + (f'#L{line}' if line else '')


def own_comment_of_kwargs(text, sym):
    "fastcore gives the comment of `**kwargs` to the return value: put it back where it stands"
    try: found = re.search(r'^ +(\*\*\w+),?[ \t]*#[ \t]*(.+?)[ \t]*$', inspect.getsource(sym), re.M)
    except (OSError, TypeError): found = None
    if not found: return text
    name, comment = map(re.escape, found.groups())
    text = re.sub(rf'^(\).*:) # {comment}$', r'\1', text, count=1, flags=re.M)
    return re.sub(rf'^( +{name}),?$', lambda m: f'{m[1]} # {found[2]}', text, count=1, flags=re.M)


def signature(sym):
    "Signature with its comments, and docstring; from the source where fastcore cannot compare a default (an array)"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        text = MarkdownRenderer(sym)._repr_markdown_()
    if not any('docments unavailable' in str(w.message) for w in caught): return own_comment_of_kwargs(text, sym)
    code = re.split(r'\n    r?"', inspect.getsource(sym))[0]
    return f'```python\n{code}\n```\n\n*{inspect.getdoc(sym)}*'


def verb_help(app):
    "`--help` of every verb of a typer app: `{name: text}`"
    import typer
    group = typer.main.get_command(app)
    def text(name, command):
        with command.context_class(command, info_name=f'hipt {name}') as ctx: return command.get_help(ctx)
    return {name: text(name, command) for name, command in group.commands.items()}


def api_section(sym, name, module):
    "Heading, source link, signature and docstring"
    text = re.sub(rf'\b{lib}\.\w+\.(?=\w)', '', signature(sym)).replace(':NoneType=', '=')
    heading = name.replace('_', r'\_')
    if isinstance(sym, type): text = text.replace('```python\ndef ', '```python\nclass ', 1)
    return (f'<span id="{anchor(name)}" class="api-anchor"></span>\n\n### {heading}\n\n'
            f'<a class="api-source" href="{source_link(name, module)}">source</a>\n\n{text}\n')


class InOrder(add_show_docs):
    "nbdev documents the last function of a cell first; here they stand as they are written"
    def begin(self):
        super().begin()
        runs = groupby(self.nb.cells, key=lambda c: getattr(c, 'has_sd', False))
        self.nb.cells = [c for is_doc, run in runs for c in (reversed(list(run)) if is_doc else run)]


class ApiSections(Processor):
    "Write out nbdev's `show_doc` cells from the exported module, without running the notebook"
    def begin(self):
        exps = [c.directives_['default_exp'] for c in self.nb.cells if 'default_exp' in c.directives_]
        self.module = exps[0] if exps else None
        self.ns = vars(import_module(f'{lib}.{self.module}')) if exps else {}
        self.verbs = verb_help(self.ns['app']) if 'app' in self.ns else {}

    def cell(self, cell):
        found = _show_docs(cell.parsed_() or []) if cell.cell_type == 'code' else None
        if not found: return
        name = cell.source.strip().splitlines()[-1].split('show_doc(')[1].split(',')[0].rstrip(' );')
        obj, *attrs = name.split('.')
        sym = self.ns[obj]
        for a in attrs: sym = getattr(sym, a)
        if isinstance(sym, property): sym = sym.fget
        is_data = not callable(sym) or isinstance(sym, type) and issubclass(sym, Enum)
        cell.cell_type, cell.source = 'markdown', '' if is_data else self.section(sym, name)
        cell.pop('outputs', None)

    def section(self, sym, name):
        "A function is shown by its signature, a verb of the command by its `--help`"
        text = api_section(sym, name, self.module)
        if name not in self.verbs: return text
        head = text.split('```python')[0].replace(f'### {name}', f'### hipt {name}')
        return f'{head}```text\n{self.verbs[name]}\n```\n'


class Pages(FilterDefaults):
    "nbdev's processors, with our API sections in place of executed ones"
    def base_procs(self):
        ours = {exec_show_docs: ApiSections, add_show_docs: InOrder}
        return [ours.get(o, o) for o in super().base_procs()]


# Markdown

def outside_code(text, fn):
    "Apply `fn` to the parts of markdown that are not fenced code"
    parts = re.split(r'(^```.*?^```[ \t]*$)', text, flags=re.M | re.S)
    return ''.join(o if i % 2 else fn(o) for i, o in enumerate(parts))


def to_html(text):
    "A link's label, which may hold code"
    return re.sub(r'`([^`]+)`', r'<code>\1</code>', html.escape(text, quote=False))


def fix_links(text, path):
    "Links between notebooks, and those that nbdev made of backticks, become HTML links between pages"
    up = '../' * (len(path.relative_to(nbs).parts) - 1)

    def to_page(m):
        "`04_tiling.ipynb`, `tiling.ipynb` and `tiling.html` all mean the same page"
        label, target, frag = m[1], Path(m[2]), m[3] or ''
        name = nbpath2html((path.parent/target).resolve().relative_to(nbs)).as_posix()
        return f'<a href="{up}{name}{frag}">{to_html(label)}</a>'

    def to_symbol(m):
        label, page, frag = m[1], m[2], m[3] or ''
        if frag: frag = '#' + anchor(frag[1:])
        return f'<a href="{up}{page}{frag}">{to_html(label)}</a>'

    text = re.sub(r'\[([^\]\n]+)\]\((?!https?:)([^)\s#]+\.(?:ipynb|html))(#[^)\s]*)?\)', to_page, text)
    return re.sub(r'\[([^\]\n]+)\]\(' + re.escape(doc_url) + r'/([^)\s#]*\.html)(#[^)\s]*)?\)', to_symbol, text)


def callout(m):
    "A Quarto callout, as nbdev writes them, becomes an admonition"
    kind, body = m[1], m[2].strip('\n')
    head = re.match(r'#+ (.+)\n', body)
    if not head: return f':::{{{kind}}}\n{body}\n:::'
    return f':::{{admonition}} {head[1]}\n:class: {kind}\n{body[head.end():].strip()}\n:::'


def fix_markdown(text, path):
    def fix(part):
        part = re.sub(r'^:::\s*\{\.callout-(\w+)[^}]*\}\s*\n(.*?)^:::\s*$', callout, part, flags=re.M | re.S)
        part = re.sub(r'^:::\s*\{[.#][^}]*\}\s*$', '', part, flags=re.M)
        part = re.sub(r'(\]\([^)\s]+\))\{[^}\n]*\}', r'\1', part)
        return fix_links(part, path)
    return outside_code(text, fix)


# Cells

tags = {('echo', 'false'): 'remove-input', ('output', 'false'): 'remove-output', ('include', 'false'): 'remove-cell',
        ('code-fold', 'true'): 'hide-input'}


def fix_code(cell):
    "Directives become cell tags; outputs that a static page cannot show, and memory addresses, go"
    pairs = re.findall(r'^#\|\s*([\w-]+):?[ \t]*(.*)$', cell.source, flags=re.M)
    cell.metadata = {'tags': [tags[k, v.strip()] for k, v in pairs if (k, v.strip()) in tags]}
    cell.source = re.sub(r'^#\|.*\n?', '', cell.source, flags=re.M).strip('\n')
    for o in cell.get('outputs', []):
        data = o.get('data', {})
        if any(k.startswith('image/') or k == 'text/html' for k in data): data.pop('text/plain', None)


def top_links(path):
    where = path.relative_to(root).as_posix()
    repo = f'{cfg.user}/{cfg.repo}'
    return ('<p class="nb-links">'
            f'<a href="https://colab.research.google.com/github/{repo}/blob/{cfg.branch}/{where}">Open in Colab</a>'
            f'<a href="{cfg.git_url}/blob/{cfg.branch}/{where}">Notebook</a></p>')


def split_title(nb):
    "Take title and summary out of the front matter that nbdev made of them"
    raw = next((c for c in nb.cells if c.cell_type == 'raw'), None)
    fm = yaml.safe_load(raw.source.strip().strip('-')) if raw else {}
    nb.cells = [c for c in nb.cells if c.cell_type != 'raw' and 'WARNING: THIS FILE WAS AUTOGENERATED' not in c.source]
    return fm.get('title', 'Untitled'), fm.get('description', '')


def convert(path, toc=''):
    "One page"
    nb = read_nb(path)
    Pages()(nb)
    title, summary = split_title(nb)
    for cell in nb.cells:
        if cell.cell_type == 'code': fix_code(cell)
        else: cell.source = fix_markdown(cell.source, path)
    head = f'# {title}\n\n:::{{div}} lead\n{fix_markdown(summary, path)}\n:::\n\n{top_links(path)}\n\n'
    nb.cells = [mk_cell(head, 'markdown')] + [c for c in nb.cells if c.source.strip()]
    if toc: nb.cells.append(mk_cell(toc, 'markdown'))
    nb.metadata = {'kernelspec': {'display_name': 'python3', 'language': 'python', 'name': 'python3'}}
    out = (src/page_name(path)).with_suffix('.ipynb')
    out.parent.mkdir(parents=True, exist_ok=True)
    write_nb(nb, out)
    return nb


def plain_text(nb):
    "The page as plain markdown, for readers that are programs: `slide.html.md` beside `slide.html`"
    def show(c):
        if c.cell_type != 'code': return re.sub(r'<span id=.*?</span>\n\n', '', c.source)
        texts = [''.join(o.get('text', o.get('data', {}).get('text/plain', ''))) for o in c.get('outputs', [])]
        return '\n\n'.join([f'```python\n{c.source}\n```', *(f'```\n{t.rstrip()}\n```' for t in texts if t.strip())])
    return '\n\n'.join(show(c) for c in nb.cells) + '\n'


def is_as_published(archive):
    "Whether a package is, byte by byte, the one whose checksum stands here"
    return base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode() == mathjax_sha512


def fetch_mathjax(cache):
    "MathJax in one file, so that formulas show without a network; None where npm is missing"
    found = cache/'tex-svg.js'
    if found.exists(): return found
    cache.mkdir(parents=True, exist_ok=True)
    npm = shutil.which('npm')
    if not npm: return None
    command = [npm, 'pack', mathjax, '--silent', '--pack-destination', str(cache)]
    res = subprocess.run(command, capture_output=True, text=True)
    packed = sorted(cache.glob('mathjax-*.tgz'))
    if res.returncode or not packed: return None
    if not is_as_published(packed[0]):
        sys.exit(f'{packed[0].name} is not the {mathjax} whose checksum is in {__file__}')
    with tarfile.open(packed[0]) as t: found.write_bytes(t.extractfile('package/es5/tex-svg.js').read())
    packed[0].unlink()
    return found


def main():
    shutil.rmtree(src, ignore_errors=True)
    extra, static = src/'_extra', src/'_static'
    for o in (extra, static): o.mkdir(parents=True)
    shutil.copy(root/'docs'/'custom.css', static)
    paths = notebooks()
    toc = toctrees(paths)
    for path in paths:
        nb = convert(path, toc if page_name(path) == 'index' else '')
        text = extra/f'{page_name(path)}.html.md'
        text.parent.mkdir(parents=True, exist_ok=True)
        text.write_text(plain_text(nb), 'utf-8')
    if (nbs/'images').exists(): shutil.copytree(nbs/'images', src/'images')
    (src/'licences.md').write_text(licences.page(), 'utf-8')
    example.cached(extra/'viewer-example')
    script = fetch_mathjax(root/'docs'/'_build'/'npm')
    if script: shutil.copy(script, static/'mathjax.js')
    else: print('npm is not here: formulas on the pages will need a network')
    print(f'{len(paths)} pages prepared')


if __name__ == '__main__': main()
