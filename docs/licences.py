"The licences of everything that an installation with all extras brings: the page of the site, and what a test allows"
import re
from importlib.metadata import PackageNotFoundError, distribution

# What a package's metadata do not say, or say in words of its own
told = {
    'cuda-toolkit': 'LicenseRef-NVIDIA-Proprietary',
    'nvidia-cusparselt-cu13': 'LicenseRef-NVIDIA-Proprietary',
    'docutils': 'LicenseRef-Public-Domain AND BSD-2-Clause',  # the one GPL file, an Emacs mode, is not in the wheel
    'tqdm': 'MPL-2.0 AND MIT',
    'matplotlib': 'PSF-2.0', 'cycler': 'BSD-3-Clause', 'kiwisolver': 'BSD-3-Clause', 'scipy': 'BSD-3-Clause',
    'torchsurv': 'MIT',
}
short = {'BSD License': 'BSD-3-Clause', 'BSD': 'BSD-3-Clause', 'BSD 3-Clause License': 'BSD-3-Clause',
         'MIT License': 'MIT', 'Apache Software License': 'Apache-2.0', 'Apache 2.0': 'Apache-2.0',
         'ISC License (ISCL)': 'ISC', 'ISC license': 'ISC', 'ISC License': 'ISC',
         'Mozilla Public License 2.0 (MPL 2.0)': 'MPL-2.0', 'Python Software Foundation License': 'PSF-2.0'}
# GPL, AGPL and the like bind whoever passes the program on; LGPL and MPL bind changes to the library itself
refused = r'(?:^|[^L])(?:A?GPL)|SSPL|BUSL|CC-BY-NC|CC-BY-ND|NON-?COMMERCIAL|UNKNOWN'


def name_of(text): return re.match(r'[\w.-]+', text)[0].lower().replace('_', '-').replace('.', '-')


def licence(dist):
    "The licence of an installed package as an SPDX expression"
    about = dist.metadata
    if name_of(about['Name']) in told: return told[name_of(about['Name'])]
    if about.get('License-Expression'): return about['License-Expression']
    classes = [c.split('::')[-1].strip() for c in about.get_all('Classifier') or [] if c.startswith('License ::')]
    classes = [c for c in classes if c != 'OSI Approved']
    words = classes or (about.get('License') or 'UNKNOWN').splitlines()[:1]
    return ' AND '.join(short.get(w, w) for w in words)


def is_allowed(expression):
    "Whether one of the choices that an SPDX expression leaves is a licence that may be passed on with the project"
    def ask(m): return str(not re.search(refused, m[0], re.I))
    parts = re.sub(r'\s+WITH\s+[\w.-]+', '', expression)
    parts = re.sub(r'[\w.+-]+', lambda m: m[0].lower() if m[0] in ('AND', 'OR') else ask(m), parts)
    return eval(parts, {'__builtins__': {}})  # `True`, `False`, `and`, `or` and brackets, nothing else


EXTRAS = 'dev', 'docs', 'encoders', 'baselines', 'tables', 'cluster', 'dask', 'remote'


def installed(package='hipt_nb', extras=EXTRAS):
    "What a package requires on this machine, with what that requires: name → distribution"
    from packaging.requirements import Requirement
    found, left = {}, [(package, frozenset(extras))]
    seen = set()
    while left:
        name, wanted = left.pop()
        if (name, wanted) in seen: continue
        seen.add((name, wanted))
        try: dist = distribution(name)
        except PackageNotFoundError: continue  # of another platform
        found[name_of(name)] = dist
        for text in dist.requires or []:
            r = Requirement(text)
            if r.marker and not any(r.marker.evaluate({'extra': e}) for e in wanted or ['']): continue
            left.append((r.name, frozenset(r.extras)))
    found.pop(name_of(package), None)
    return dict(sorted(found.items()))


def page():
    "The page of the site"
    rows = [(d.metadata['Name'], d.version, licence(d)) for d in installed().values()]
    head = ['# Licences', '',
            'hipt_nb itself is under Apache-2.0. An installation with all extras brings these packages; '
            'the viewer ships OpenSeadragon and Annotorious (BSD-3-Clause). None of them is under a licence that '
            'forbids commercial use or that binds programs which only use it. '
            'NVIDIA\'s packages come with the builds of torch for its GPUs, and OpenSlide (LGPL) is loaded as a '
            'library that you can replace.', '', '| package | version | licence |', '|---|---|---|']
    return '\n'.join(head + [f'| {n} | {v} | {l} |' for n, v, l in rows]) + '\n'
