"""Turn the notebooks into pages that Sphinx reads: nbdev adds the API sections and the links, this file the rest

Nothing is executed here: pages show the outputs that the notebooks store."""
import ast
import base64
import hashlib
import html
import json
import re
import shutil
import subprocess
import sys
import tarfile
from enum import Enum
from importlib import import_module
from pathlib import Path

import yaml
from fastcore.nbio import mk_cell, read_nb, write_nb
from nbdev.config import get_config, nbpath2html
from nbdev.doclinks import _get_exps
from nbdev.process import Processor
from nbdev.processors import FilterDefaults, _show_docs, _want_doc, add_show_docs, exec_show_docs

import api
import example
import glossary
import licences
import words
from book import notebooks

root = Path(__file__).resolve().parents[1]
src, nbs = root/'docs'/'_src', root/'nbs'
cfg = get_config(root)
lib = cfg.lib_name
doc_url = cfg.doc_url.rstrip('/')

mathjax = 'mathjax@3.2.2'
mathjax_sha512 = 'Bt+SSVU8eBG27zChVewOicYs7Xsdt40qm4+UpHyX7k0/O9NliPc+x77k1/FEsPsjKPZGJvtRZM1vO+geW0OhGw=='  # npm's own


# Pages

pages = root/'docs'/'pages'
contents = pages/'contents.md'


def page_name(path):
    "Address of a page without `.html`: notebooks lose their number, text pages stand beside them"
    if path.parent == pages: return path.stem
    return nbpath2html(path.relative_to(nbs)).with_suffix('').as_posix()


def depth(path): return page_name(path).count('/')


def reading_order():
    "The groups of the table of contents, in its order: `{group: [path]}`"
    text = contents.read_text('utf-8')
    groups = re.split(r'^## (.+)$', text, flags=re.M)[1:]
    links = [re.findall(r'^\| \[[^\]]+\]\(([^)\s]+)\)', o, flags=re.M) for o in groups[1::2]]
    return {g: [(pages/o).resolve() for o in found] for g, found in zip(groups[::2], links)}


def toctrees(made):
    "Hidden tables of contents of the pages that are made, one a group of the sidebar"
    found = {g: [n for n in map(page_name, paths) if n in made] for g, paths in reading_order().items()}
    if 'contents' in made: found[next(iter(found))].insert(0, 'contents')
    return '\n'.join(f'```{{toctree}}\n:hidden:\n:caption: {g}\n\n' + '\n'.join(names) + '\n```\n'
                     for g, names in found.items() if names)


# API sections

def anchor(name):
    "Where a name's API section is: nbdev's own anchor, but never one that a heading of the story could have too"
    return name.lower() if re.search('[._]', name) else f'api.{name.lower()}'


def source_link(name, module):
    line = _get_exps(f'{lib}/{module}.py').get(name)
    return f'{cfg.git_url}/blob/{cfg.branch}/{lib}/{module}.py' + (f'#L{line}' if line else '')


class InOrder(add_show_docs):
    "nbdev documents the last function of a cell first; here they stand as they are written, and then their code"
    def begin(self):
        super().begin()
        cells, exported, waiting = [], None, []
        for cell in [*self.nb.cells, None]:
            if cell is not None and getattr(cell, 'has_sd', False):
                waiting.insert(0, cell)
                continue
            for o in waiting: o.code_ = exported.source
            if waiting: waiting[-1].last_ = True
            elif exported is not None: cells.append(self.helper(exported))
            cells += waiting
            exported, waiting = None, []
            if cell is None: break
            cells.append(cell)
            if self.is_code(cell): exported = cell
        self.nb.cells = cells

    def is_code(self, cell):
        "Whether a cell is exported and more than imports"
        if not _want_doc(cell) and not {'export', 'exporti'} & set(cell.directives_ or {}): return False
        return any(not isinstance(o, (ast.Import, ast.ImportFrom)) for o in cell.parsed_() or [])

    def helper(self, cell):
        "Code that has no section of its own: helpers and constants"
        names = [o.name for o in cell.parsed_() or [] if hasattr(o, 'name')]
        anchors = ''.join(f'<span id="{anchor(n)}" class="api-anchor"></span>' for n in names)
        given = [o for o in cell.parsed_() or [] if isinstance(o, ast.Assign)]
        names += [t.id for o in given for t in o.targets if hasattr(t, 'id')]
        shown = ', '.join(f'<code>{n}</code>' for n in names[:4]) + (' …' if len(names) > 4 else '')
        res = mk_cell('', 'markdown')
        what = f'Code of {shown}' if names else 'Code'
        res.helper_ = anchors + '\n\n' + api.fold(what, api.fence(clean(cell.source)))
        return res


def clean(code): return re.sub(r'^#\|.*\n?', '', code, flags=re.M).strip('\n')


class ApiSections(Processor):
    "Write out nbdev's `show_doc` cells from the exported module, without running the notebook"
    def begin(self):
        exps = [c.directives_['default_exp'] for c in self.nb.cells if 'default_exp' in c.directives_]
        self.module = exps[0] if exps else None
        self.ns = vars(import_module(f'{lib}.{self.module}')) if exps else {}
        self.verbs = api.verbs(self.ns['app']) if 'app' in self.ns else {}

    def cell(self, cell):
        if getattr(cell, 'helper_', None): cell.source = cell.helper_
        found = _show_docs(cell.parsed_() or []) if cell.cell_type == 'code' else None
        if not found: return
        name = cell.source.strip().splitlines()[-1].split('show_doc(')[1].split(',')[0].rstrip(' );')
        obj, *attrs = name.split('.')
        sym = self.ns[obj]
        for a in attrs: sym = getattr(sym, a)
        if isinstance(sym, property): sym = sym.fget
        is_data = not callable(sym) or isinstance(sym, type) and issubclass(sym, Enum)
        code = clean(getattr(cell, 'code_', ''))
        text = '' if is_data else self.section(sym, name, code)
        if getattr(cell, 'last_', False) and name not in self.verbs:
            text += '\n' + (api.fold(f'Code of <code>{name}</code>', api.fence(code)) if is_data
                            else api.code_of(code, self.module))
        cell.cell_type, cell.source = 'markdown', text
        cell.pop('outputs', None)

    def section(self, sym, name, code):
        "A function or class with its parameters, or a command with its options"
        link = source_link(name, self.module)
        if name in self.verbs: return api.command_section(*self.verbs[name], code, anchor(name), link)
        return api.section(name, sym, code, self.module, anchor(name), link)


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
    up = '../' * depth(path)

    def to_page(m):
        "`04_tiling.ipynb`, `tiling.ipynb` and `tiling.html` all mean the same page"
        label, target, frag = m[1], Path(m[2]), m[3] or ''
        to = (path.parent/target).resolve()
        name = page_name(to.with_suffix('')) if to.parent == pages else nbpath2html(to.relative_to(nbs)).with_suffix('')
        return f'<a href="{up}{name}.html{frag}">{to_html(label)}</a>'

    def to_symbol(m):
        label, page, frag = m[1], m[2], m[3] or ''
        if frag: frag = '#' + anchor(frag[1:])
        return f'<a href="{up}{page}{frag}">{to_html(label)}</a>'

    text = re.sub(r'\[([^\]\n]+)\]\((?!https?:)([^)\s#]+\.(?:ipynb|html|md))(#[^)\s]*)?\)', to_page, text)
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
    said = dict(pairs).get('fig-cap', '').strip()
    if said: cell.metadata['mystnb'] = {'figure': {'caption': said}, 'image': {'alt': re.sub('[`*$]', '', said)}}
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
    "One page from a notebook: its cells, title and summary"
    nb = read_nb(path)
    Pages()(nb)
    title, summary = split_title(nb)
    up, seen = '../' * depth(path), set()
    for cell in nb.cells:
        if cell.cell_type == 'code': fix_code(cell)
        else: cell.source = fix_markdown(cell.source, path)
        is_api = hasattr(cell, 'code_') or hasattr(cell, 'helper_')
        if cell.cell_type != 'code' and not is_api: cell.source = glossary.linked(cell.source, up, seen)
    head = (f'# {title}\n\n{words.entries(page_name(path))}:::{{div}} lead\n{fix_markdown(summary, path)}\n:::\n\n'
            f'{top_links(path)}\n\n')
    nb.cells = [mk_cell(head, 'markdown')] + [c for c in nb.cells if c.source.strip()]
    text = plain_text(nb)
    if toc: nb.cells.append(mk_cell(toc, 'markdown'))
    nb.metadata = {'kernelspec': {'display_name': 'python3', 'language': 'python', 'name': 'python3'}}
    out = (src/page_name(path)).with_suffix('.ipynb')
    out.parent.mkdir(parents=True, exist_ok=True)
    write_nb(nb, out)
    return title, summary, text


def text_page(name, text):
    "A page of text: title, summary after `>`, the rest"
    title, summary = re.match(r'# (.+)\n+(?:> (.+)\n)?', text).groups()
    body = re.sub(r'^# .+\n+(?:> .+\n)?', '', text)
    body = fix_markdown(body, pages/f'{name}.md')
    if name == 'glossary': body = glossary.with_ids(body)
    elif name not in ('contents', 'changelog', 'licences'): body = glossary.linked(body)
    head = f'# {title}\n\n{words.entries(name)}' + (f':::{{div}} lead\n{summary}\n:::\n\n' if summary else '')
    listed = {page_name(o) for paths in reading_order().values() for o in paths} | {'contents'}
    front = '' if name in listed else '---\norphan: true\n---\n'
    (src/f'{name}.md').write_text(front + head + body, 'utf-8')
    return title, summary or title, f'# {title}\n\n{body}'


def plain_text(nb):
    "The page as plain markdown, for readers that are programs: `slide.html.md` beside `slide.html`"
    def show(c):
        if c.cell_type != 'code':
            text = re.sub(r'<a class="term"[^>]*>(.*?)</a>', r'\1', c.source)
            return re.sub(r'(<span id=[^\n]*</span>)+\n\n|```\{index\}.*?```\n\n', '', text, flags=re.S)
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


def changelog():
    text = (root/'CHANGELOG.md').read_text('utf-8')
    summary = 'What a user sees of every version, and old names with their new ones'
    return text.replace('# Changelog\n', f'# Changelog\n\n> {summary}\n', 1)


def main(only=()):
    shutil.rmtree(src, ignore_errors=True)
    extra, static = src/'_extra', src/'_static'
    for o in (extra, static): o.mkdir(parents=True)
    for o in ('custom.css', 'site.js', 'favicon.svg'): shutil.copy(root/'docs'/o, static)
    shutil.copy(root/'docs'/'images'/'index-1.jpeg', static/'card.jpg')
    paths = {page_name(o): o for o in [*notebooks(), *sorted(pages.glob('*.md'))]}
    if only: paths = {k: v for k, v in paths.items() if k in {'index', *only}}
    texts = {} if only else dict(changelog=changelog(), licences=licences.page())
    made, toc = {}, toctrees({*paths, *texts})
    for name, path in paths.items():
        made[name] = (text_page(name, path.read_text('utf-8')) if path.parent == pages
                      else convert(path, toc if name == 'index' else ''))
    for name, text in texts.items(): made[name] = text_page(name, text)
    for name, (*_, text) in made.items():
        out = extra/f'{name}.html.md'
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, 'utf-8')
    groups = {g: [n for n in map(page_name, o) if n in made] for g, o in reading_order().items()}
    title, summary, _ = made['index']
    about = dict(title=title, summary=summary, url=doc_url + '/', groups=groups,
                 pages={k: (title, summary) for k, (title, summary, _) in made.items()})
    (src/'about.json').write_text(json.dumps(about), 'utf-8')
    if (nbs/'images').exists(): shutil.copytree(nbs/'images', src/'images')
    example.cached(extra/'viewer-example')
    script = fetch_mathjax(root/'docs'/'_build'/'npm')
    if script: shutil.copy(script, static/'mathjax.js')
    else: print('npm is not here: formulas on the pages will need a network')
    print(f'{len(made)} pages prepared')


if __name__ == '__main__': main(sys.argv[1:])
