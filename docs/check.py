"""Check the built site: links lead somewhere, pictures have captions, searched words are found, pages are light

A caption is the line `#| fig-cap: what it shows` at the head of the cell that draws; it is the alternative text too."""
import json
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlparse

import words


class Page(HTMLParser):
    "The ids of a page, and the addresses it points to"
    def __init__(self, path):
        super().__init__()
        self.ids, self.links, self.images, self.silent = set(), set(), set(), set()
        self.feed(path.read_text('utf-8'))

    def handle_starttag(self, tag, attrs):
        a = dict(attrs)
        for k in ('id', 'name'):
            if a.get(k): self.ids.add(a[k])
        for k in ('href', 'src'):
            if a.get(k): self.links.add(a[k])
        if tag == 'img' and a.get('src'):
            self.images.add(a['src'])
            if '_images/' in (a.get('alt') or a['src']): self.silent.add(a['src'])  # Sphinx's own text


def is_internal(link):
    u = urlparse(link)
    return not u.scheme and not u.netloc and bool(u.path or u.fragment)


def target(path, link):
    "The file that a link on a page names"
    p = unquote(urlparse(link).path)
    res = (path.parent/p).resolve() if p else path
    return res/'index.html' if res.is_dir() else res


def found_words(site):
    "Everything that the search box finds a page by: words, titles and entries of the index, in lower case"
    text = (site/'searchindex.js').read_text('utf-8')
    index = json.loads(text[text.index('(') + 1:text.rindex(')')])
    return {k.lower() for name in ('terms', 'titleterms', 'alltitles', 'indexentries') for k in index[name]}


def problems(site, limit=1_000_000, must=()):
    "One line for each thing wrong"
    site = Path(site).resolve()
    pages = {p: Page(p) for p in sorted(site.rglob('*.html')) if '_static' not in p.relative_to(site).parts}
    for path, page in pages.items():
        name = path.relative_to(site)
        for link in sorted(filter(is_internal, page.links)):
            to, frag = target(path, link), unquote(urlparse(link).fragment)
            if not to.exists(): yield f'{name}: {link} leads nowhere'
            elif frag and to in pages and frag not in pages[to].ids: yield f'{name}: {link} names no place on that page'
        images = {target(path, o) for o in page.images if is_internal(o)}
        size = path.stat().st_size + sum(o.stat().st_size for o in images if o.exists())
        if size > limit: yield f'{name}: {size/1e6:.1f} MB with its pictures'
        for o in sorted(page.silent): yield f'{name}: {o} has no caption: give its cell a line #| fig-cap:'
    if must: yield from (f'the search does not find "{o}"' for o in must if o.lower() not in found_words(site))


def main(site):
    found = list(problems(site, must=words.MUST))
    print('\n'.join(found) or 'Links resolve, pictures have captions, pages are light')
    return bool(found)


if __name__ == '__main__': sys.exit(main(sys.argv[1]))
