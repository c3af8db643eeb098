"The glossary's terms, and links to them from their first use on a page"
import re
from pathlib import Path

page = Path(__file__).resolve().parent/'pages'/'glossary.md'
# Words of every sentence here: a link would be in the way
common = set('token patch region level head encoder features embedding view bag instance fold phantom HIPT H&E'.split())
# What a term is not looked for in: code, formulas, links, tags, headings, tables, directives
protected = re.compile(r'(^```.*?^```|`[^`]*`|\$\$.*?\$\$|\$[^$\n]*\$|!?\[[^\]]*\]\([^)]*\)|<a [^>]*>.*?</a>|<[^>]+>'
                       r'|^#.*?$|^\|.*?$|^:::.*?$)', re.S | re.M)


def slug(term): return 'term-' + re.sub(r'\W+', '-', term.lower()).strip('-')


def names(line):
    "A term with its other names: `attention map (heatmap)` has two"
    return [o.strip() for o in re.split(r'[,()]', line) if o.strip()]


def terms():
    "Every name that is linked, and the id of its entry"
    lines = re.findall(r'^(\S.*)\n: ', page.read_text('utf-8'), re.M)
    return {n: slug(line) for line in lines for n in names(line) if n not in common}


def with_ids(text):
    "The glossary's own page, with a place to link to at every term"
    return re.sub(r'^(\S.*)\n(?=: )', lambda m: f'<span id="{slug(m[1])}"></span>{m[1]}\n', text, flags=re.M)


def linked(text, up='', seen=None):
    "Text with the first use of every term as a link; `seen` holds the terms that this page has had"
    seen = set() if seen is None else seen
    known = terms()
    found = re.compile(r'(?<![\w-])(' + '|'.join(map(re.escape, sorted(known, key=len, reverse=True))) + r')(?![\w-])')

    def link(m):
        to = known[m[1]]
        if to in seen: return m[0]
        seen.add(to)
        return f'<a class="term" href="{up}glossary.html#{to}">{m[0]}</a>'

    parts = protected.split(text)
    return ''.join(o if i % 2 else found.sub(link, o) for i, o in enumerate(parts))
