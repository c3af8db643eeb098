"""What Sphinx's pages still need: light pictures, icons and styles, tags for other sites, a page for lost addresses

It works on the built HTML, so that each step can be read, and left out, by itself."""
import html
import json
import re
import sys
from functools import cache
from pathlib import Path
from urllib.parse import quote

import pydata_sphinx_theme
from PIL import Image

here = Path(__file__).resolve().parent
OPEN = 'Start here', 'Lessons', 'How to'
ABOUT = here/'_src'/'about.json'  # titles, summaries and addresses, from prepare.py


def pages(site):
    mine = lambda p: not {'_static', 'viewer-example'} & set(p.relative_to(site).parts)
    return [p for p in sorted(site.rglob('*.html')) if mine(p)]


# Pictures

@cache
def webp(path):
    "The picture as WebP beside it, where that is smaller: its path and size"
    with Image.open(path) as im:
        size = im.size
        out = path.with_suffix('.webp')
        im.convert('RGB').save(out, quality=82, method=4)
    if out.stat().st_size < path.stat().st_size: return out, size
    out.unlink()
    return path, size


def pictures(text, page, site):
    "Smaller files, their size in the page, read when they come into view, and a link to look at them alone"
    def fix(m):
        tag, src = m[0], re.search(r'src="([^"]+)"', m[0])[1]
        path = (page.parent/src).resolve()
        if '_images' not in path.parts or path.suffix not in ('.png', '.jpg', '.jpeg') or not path.exists(): return tag
        new, (w, h) = webp(path)
        address = src.rsplit('/', 1)[0] + '/' + new.name
        alt = re.search(r'alt="([^"]*)"', tag)[1]
        cls = re.search(r'class="([^"]*)"', tag)
        cls = f' class="{cls[1]}"' if cls else ''
        return (f'<a class="full-size" href="{address}" title="Full size"><img src="{address}" alt="{alt}" width="{w}" '
                f'height="{h}" loading="lazy"{cls} /></a>')
    own = r'<a class="[^"]*image-reference" href="[^"]*">\s*(<img [^>]*>)\s*</a>'  # docutils' link
    text = re.sub(own, r'\1', text)
    return re.sub(r'<img [^>]*>', fix, text)


# Icons: the theme draws a dozen of them with a script of 1.5 MB

def icon_css(names):
    "The icons that the pages use, as masks; their shapes are those of the theme's own file"
    script = Path(pydata_sphinx_theme.__file__).parent/'theme/pydata_sphinx_theme/static/scripts/fontawesome.js'
    shapes, rules = script.read_text('utf-8'), []
    for name in sorted(names):
        m = re.search(rf'[{{,]"?{name}"?:\[(\d+),(\d+),\[[^\]]*\],"[0-9a-f]+","([^"]+)"\]', shapes)
        if not m: continue
        svg = f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {m[1]} {m[2]}'><path d='{m[3]}'/></svg>"
        rules.append(f'.fa-{name}::before {{ --icon: url("data:image/svg+xml,{quote(svg, safe=" =:/")}"); }}')
    base = (':is(.fa-solid, .fas, .fab, .fa-brands)::before { content: ""; display: inline-block; width: 1em; '
            'height: 1em; vertical-align: -.125em; background: currentColor; '
            'mask: var(--icon) center / contain no-repeat; -webkit-mask: var(--icon) center / contain no-repeat; }')
    return '\n'.join([base, *rules]) + '\n'


# Styles: the theme brings all of Bootstrap

def used_words(site):
    "Everything that could be a class or id on a page or in a script"
    texts = [p.read_text('utf-8') for p in pages(site)]
    scripts = [p for p in (site/'_static').rglob('*.js') if p.name != 'mathjax.js']
    texts += [p.read_text('utf-8', errors='replace') for p in scripts]
    return set(re.findall(r'[\w-]+', '\n'.join(texts)))


def blocks(css):
    "Rules of a stylesheet: (what stands before the brace, what stands in it)"
    at = 0
    while (start := css.find('{', at)) >= 0:
        depth, end = 1, start + 1
        while depth:
            c = css[end]
            depth += (c == '{') - (c == '}')
            end += 1
        yield css[at:start], css[start + 1:end - 1]
        at = end


def purge(css, words):
    "The rules that can apply to something"
    out = []
    for head, body in blocks(re.sub(r'/\*.*?\*/', '', css, flags=re.S)):
        *before, sel = head.split(';')
        out += [o + ';' for o in before if o.strip()]
        if sel.strip().startswith('@'):
            if re.match(r'\s*@(media|supports)', sel): body = purge(body, words)
            if body.strip() and not ('font-face' in sel and 'Font Awesome' in body): out.append(f'{sel}{{{body}}}')
            continue
        parts = re.split(r',(?![^()]*\))', sel)
        names = [re.findall(r'[.#]([\w-]+)', re.sub(r':(not|is|where|has)\([^()]*\)', '', p)) for p in parts]
        keep = [p for p, found in zip(parts, names) if set(found) <= words]
        if keep: out.append(f'{",".join(keep)}{{{body}}}')
    return ''.join(out)


def lighter_styles(site):
    words = used_words(site)
    for path in [*(site/'_static'/'styles').glob('pydata*.css'), site/'_static'/'sphinx-design.min.css']:
        if path.exists(): path.write_text(purge(path.read_text('utf-8'), words), 'utf-8')
    for path in (site/'_static').rglob('*.map'): path.unlink()
    (site/'_static'/'scripts'/'fontawesome.js').unlink(missing_ok=True)


# Head of the page

def tags(page, site, about):
    "What search engines and other sites show of a page"
    name = page.relative_to(site).with_suffix('').as_posix()
    title, summary = about['pages'].get(name, (about['title'], about['summary']))
    title = title if name == 'index' else f'{title} · {about["title"]}'
    picture = about['url'] + '_static/card.jpg'
    social = dict(type='website', site_name=about['title'], title=title, description=summary,
                  url=f'{about["url"]}{name}.html', image=picture)
    pairs = [*(('property', f'og:{k}', v) for k, v in social.items()),
             ('name', 'twitter:card', 'summary_large_image'), ('name', 'description', summary)]
    lines = [f'<meta {k}="{n}" content="{html.escape(v, quote=True)}" />' for k, n, v in pairs]
    if (site/f'{name}.html.md').exists():
        lines.append(f'<link rel="alternate" type="text/markdown" href="{page.name}.md" title="as markdown" />')
    return '\n'.join(lines) + '\n</head>'


def sidebar(text):
    "Groups of the table of contents fold; the one that the page is in is open"
    def fix(m):
        is_open = 'current' in m[2] or m[1] in OPEN
        return (f'<details class="toc-group"{" open" if is_open else ""}><summary>{m[1]}</summary>\n'
                f'<ul class="{m[2]}">{m[3]}</ul></details>')
    return re.sub(r'<p aria-level="2" class="caption" role="heading"><span class="caption-text">(.*?)</span></p>\s*'
                  r'<ul class="([^"]*nav bd-sidenav[^"]*)">(.*?)</ul>', fix, text, flags=re.S)


def finish(page, site, about):
    text = page.read_text('utf-8')
    text = re.sub(r'<script[^>]*fontawesome\.js[^>]*></script>\s*', '', text)
    if page.name != 'search.html':
        text = re.sub(r'<script src="[^"]*(searchtools|language_data|searchindex)\.js[^"]*"></script>\s*', '', text)
    text = re.sub(r'(<button class="btn search-button-field[^>]*aria-label=")Search"', r'\1Search Ctrl+K"', text)
    text = sidebar(pictures(text, page, site)).replace('</head>', tags(page, site, about), 1)
    text = text.replace('</head>', '<link rel="stylesheet" href="' + '../'*(len(page.relative_to(site).parts) - 1)
                        + '_static/icons.css" />\n</head>', 1)
    if page.name == '404.html':  # shown at whatever address was asked for
        text = text.replace('<head>', f'<head>\n<base href="{about["url"]}" />', 1)
    page.write_text(text, 'utf-8')
    return set(re.findall(r'\bfa-([a-z][a-z-]+)', text))


def llms(site, about):
    "Addresses of all pages as markdown, for programs that read"
    lines = [f'# {about["title"]}', '', f'> {about["summary"]}', '',
             'Every page of the site as markdown, in order of reading; one file with all of them is llms-full.txt.']
    for group, names in about['groups'].items():
        lines += ['', f'## {group}', '']
        lines += [f'- [{about["pages"][n][0]}]({about["url"]}{n}.html.md): {about["pages"][n][1]}' for n in names]
    (site/'llms.txt').write_text('\n'.join(lines) + '\n', 'utf-8')
    names = ['index', *(n for o in about['groups'].values() for n in o)]
    (site/'llms-full.txt').write_text('\n\n'.join((site/f'{n}.html.md').read_text('utf-8') for n in names), 'utf-8')


def main(site):
    site = Path(site).resolve()
    about = json.loads(ABOUT.read_text('utf-8'))
    icons = set().union(*(finish(p, site, about) for p in pages(site)))
    (site/'_static'/'icons.css').write_text(icon_css(icons), 'utf-8')
    lighter_styles(site)
    for p in (site/'_images').glob('*.webp'):  # what is not shown any more
        for old in ('.png', '.jpg', '.jpeg'): p.with_suffix(old).unlink(missing_ok=True)
    llms(site, about)


if __name__ == '__main__': main(sys.argv[1])
