"Check the built site: every internal link leads somewhere, and no page is over 2 MB with its pictures"
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlparse


class Page(HTMLParser):
    "The ids of a page, and the addresses it points to"
    def __init__(self, path):
        super().__init__()
        self.ids, self.links, self.images = set(), set(), set()
        self.feed(path.read_text('utf-8'))

    def handle_starttag(self, tag, attrs):
        a = dict(attrs)
        for k in ('id', 'name'):
            if a.get(k): self.ids.add(a[k])
        for k in ('href', 'src'):
            if a.get(k): self.links.add(a[k])
        if tag == 'img' and a.get('src'): self.images.add(a['src'])


def is_internal(link):
    u = urlparse(link)
    return not u.scheme and not u.netloc and bool(u.path or u.fragment)


def target(path, link):
    "The file that a link on a page names"
    p = unquote(urlparse(link).path)
    res = (path.parent/p).resolve() if p else path
    return res/'index.html' if res.is_dir() else res


def problems(site, limit=2_000_000):
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


def main(site):
    found = list(problems(site))
    print('\n'.join(found) or 'All internal links resolve')
    return bool(found)


if __name__ == '__main__': sys.exit(main(sys.argv[1]))
