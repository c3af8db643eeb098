"What holds the project together: modules and notebooks in step, one set of names, and the rules of the house"
import ast
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from configparser import ConfigParser
from pathlib import Path

import pytest
import yaml

root = Path(__file__).resolve().parents[1]
nbs, lib = root/'nbs', root/'hipt_nb'
notebooks = sorted(p for p in nbs.rglob('*.ipynb') if not any(o[0] in '._' for o in p.relative_to(root).parts))
chapters = [p for p in notebooks if re.match(r'\d', p.name)]
modules = [p for p in sorted(lib.glob('*.py')) if p.name[0] != '_']
ids = dict(ids=lambda p: p.stem)

config = ConfigParser(delimiters='=', interpolation=None)
config.read(root/'settings.ini', encoding='utf-8')
settings = config['DEFAULT']
pyproject = tomllib.loads((root/'pyproject.toml').read_text('utf-8'))
urls = pyproject['project']['urls']
owner = '/'.join(urls['Repository'].split('/')[-2:])


def lines(key): return [o.strip() for o in settings.get(key, '').splitlines() if o.strip()]


def package(requirement): return re.match(r'[\w.-]+', requirement)[0].lower().replace('_', '-')


def python(*args, **kwargs):
    "Run a fresh Python in the repository"
    env = {k: v for k, v in os.environ.items() if k != 'IN_TEST'}
    return subprocess.run([sys.executable, *map(str, args)],
                          **{'cwd': root, 'env': env, 'capture_output': True, 'text': True, **kwargs})


def cells(path): return json.loads(path.read_text('utf-8'))['cells']


def source(cell): return ''.join(cell['source'])


def load(name):
    "A script of docs/ as a module"
    sys.path.insert(0, str(root/'docs'))
    try:
        spec = importlib.util.spec_from_file_location(name, root/'docs'/f'{name}.py')
        mod = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(mod)
        return mod
    finally: sys.path.remove(str(root/'docs'))


# Notebooks and what is made from them

def test_modules_in_step(tmp_path):
    "Exporting the notebooks gives exactly the modules that are here"
    skip = shutil.ignore_patterns('_proc', '.ipynb_checkpoints')
    shutil.copytree(nbs, tmp_path/'nbs', ignore=skip)
    shutil.copy(root/'pyproject.toml', tmp_path)
    (tmp_path/'hipt_nb').mkdir()
    shutil.copy(lib/'__init__.py', tmp_path/'hipt_nb')
    res = python('-c', 'from nbdev.doclinks import nbdev_export; nbdev_export()', cwd=tmp_path)
    assert res.returncode == 0, res.stderr[-3000:]
    here, made = ({p.name: p.read_text('utf-8') for p in d.glob('*.py')} for d in (lib, tmp_path/'hipt_nb'))
    assert sorted(here) == sorted(made), 'run nbdev-export, and remove modules that have no notebook'
    assert [k for k in here if here[k] != made[k]] == [], 'out of step: run nbdev-export'


@pytest.mark.parametrize('path', notebooks, **ids)
def test_notebook_is_clean(path):
    from nbdev.clean import clean_nb
    keys = pyproject['tool']['nbdev'].get('allowed_out_metadata_keys', [])
    nb = json.loads(path.read_text('utf-8'))
    clean_nb(nb, allowed_out_metadata_keys=keys)
    assert nb == json.loads(path.read_text('utf-8')), f'run nbdev-clean on {path.name}'


@pytest.mark.parametrize('path', notebooks, **ids)
def test_notebook_outputs(path):
    "Small, no errors, nothing on stderr, no path of the machine it was made on"
    assert path.stat().st_size < 1_000_000
    for cell in cells(path):
        for o in cell.get('outputs', []):
            assert o['output_type'] != 'error' and o.get('name') != 'stderr', source(cell)
            data = {'text/plain': o.get('text', ''), **o.get('data', {})}
            text = '\n'.join(''.join(v) for k, v in data.items() if k.startswith('text/'))
            text = re.sub(r'data:[\w/+;-]+,[A-Za-z0-9+/=]+', '', text)
            assert not re.search(r'''(^|[\s"'(=])(/(home|root|Users|tmp|work|var|private|opt|mnt)/|[A-Z]:\\)''',
                                 text), text[:500]


@pytest.mark.parametrize('path', notebooks, **ids)
def test_figures_were_drawn(path):
    "An output of which only `<Figure size ...>` was kept is a figure that is not there"
    for cell in cells(path):
        for o in cell.get('outputs', []):
            data = o.get('data', {})
            has_image = any(k.startswith('image/') for k in data)
            assert has_image or '<Figure size' not in ''.join(data.get('text/plain', '')), source(cell)


@pytest.mark.parametrize('path', notebooks, **ids)
def test_pictures_have_captions(path):
    "What a picture shows, in words: its caption on the site, and what those hear who cannot see it"
    def is_picture(cell): return any(k.startswith('image/') for o in cell.get('outputs', []) for k in o.get('data', {}))
    silent = [c['id'] for c in cells(path) if is_picture(c) and not re.search(r'^#\| fig-cap: \S', source(c), re.M)]
    assert silent == [], 'give these cells a line "#| fig-cap: what the picture shows"'


@pytest.mark.parametrize('path', notebooks, **ids)
def test_notebook_head(path):
    "Title and summary first; then a hidden cell that installs the package on Colab"
    first, *rest = cells(path)
    assert re.match(r'# .+\n+> .+', source(first)), 'a notebook opens with "# Title" and "> summary"'
    assert any('google.colab' in source(c) and f'git+{urls["Repository"]}' in source(c) for c in rest[:4])


@pytest.mark.parametrize('path', chapters, **ids)
def test_chapter_names_its_module(path):
    exps = [m[1] for c in cells(path) for m in [re.search(r'^#\|\s*default_exp:?\s+(\S+)', source(c), re.M)] if m]
    assert exps == [re.sub(r'^\d+[a-z]*_', '', path.stem)]


def test_nothing_left_behind():
    "Running notebooks writes to temporary folders only"
    made = [p.name for p in nbs.rglob('*') if p.is_file() and p.suffix != '.ipynb'
            and not any(o in p.parts for o in ('images', '.ipynb_checkpoints'))
            and p.name not in ('llms.txt', 'sidebar.yml', '_quarto.yml', 'nbdev.yml')]
    assert made == []


def test_readme_in_step():
    res = python('docs/readme.py', '--check')
    assert res.returncode == 0, res.stderr


def test_contents_list_every_page_once():
    "By the title that it has: the table of contents is what the sidebar is made of"
    prepare = load('prepare')
    listed = [p for paths in prepare.reading_order().values() for p in paths]
    made = {prepare.pages/f'{o}.md' for o in ('changelog', 'licences')}
    text = [p for p in prepare.pages.glob('*.md') if p.stem not in ('contents', '404')]
    assert len(listed) == len(set(listed))
    assert set(listed) == {p.resolve() for p in [*notebooks, *text, *made] if p.name != 'index.ipynb'}
    links = re.findall(r'^\| \[([^\]]+)\]\(([^)\s]+)\)', prepare.contents.read_text('utf-8'), re.M)
    for label, link in links:
        path = (prepare.pages/link).resolve()
        if path in made: continue
        first = source(cells(path)[0]) if path.suffix == '.ipynb' else path.read_text('utf-8')
        assert label == re.match(r'# (.+)', first)[1].strip(), path.name


# The rules of the house

number = {re.sub(r'^\d+[a-z]*_', '', p.stem): p.stem for p in chapters}


def imported(tree):
    "Every module that a piece of code imports, inside functions too: (level, dotted name)"
    for node in ast.walk(tree):
        if isinstance(node, ast.Import): yield from ((0, a.name) for a in node.names)
        if isinstance(node, ast.ImportFrom):
            if node.module: yield node.level, node.module
            else: yield from ((node.level, a.name) for a in node.names)


@pytest.mark.parametrize('path', modules, **ids)
def test_imports_only_from_smaller_numbers(path):
    for level, name in imported(ast.parse(path.read_text('utf-8'))):
        other = name if level else name.removeprefix('hipt_nb.') if name.startswith('hipt_nb.') else None
        if other in number: assert number[other] < number[path.stem], f'{path.stem} imports {other}'


@pytest.mark.parametrize('path', modules, **ids)
def test_nothing_forbidden(path):
    text = path.read_text('utf-8')
    assert not re.search(r'^\s*from \S+ import \*', text, re.M)
    for bad in ('strict=False', 'weights_only=False', 'load_learner', 'pdb', 'TODO', 'FIXME'):
        assert bad not in text, bad
    assert not re.search(r'\bpickle\.loads?\b', text)


@pytest.mark.parametrize('folder', ['hipt_nb', 'docs', 'tests', 'benchmarks', 'setup.py'])
def test_lint(folder):
    res = python('-m', 'ruff', 'check', '--no-cache', '--output-format', 'concise', folder)
    assert res.returncode == 0, res.stdout + res.stderr


@pytest.mark.parametrize('path', chapters, **ids)
def test_lines_of_exported_cells(path):
    "At most 120 characters, in the notebook and not in the module, whose `__all__` nbdev writes"
    exported = [(c['id'], source(c)) for c in cells(path) if re.search(r'^#\|\s*exports?\b', source(c), re.M)]
    found = [(id, line.strip(), len(line)) for id, text in exported for line in text.splitlines()]
    long = [f'{id}: {n} characters: {line[:60]}' for id, line, n in found if n > 120]
    assert long == [], '\n'.join(long)


# What the library does to others: it prints nothing, and leaves warnings and loggers as they are

def calls(tree, *names):
    "Line numbers of calls of a function or a method, and whether they are within `with warnings.catch_warnings()`"
    blocks = [w for w in ast.walk(tree) if isinstance(w, ast.With)
              and any('catch_warnings' in ast.unparse(i) for i in w.items)]
    guarded = {id(n) for w in blocks for n in ast.walk(w)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).split('.')[-1] in names:
            yield node.lineno, id(node) in guarded


trees = {p.stem: ast.parse(p.read_text('utf-8')) for p in modules}


def test_only_the_command_prints():
    assert [f'{m}, line {n}' for m, tree in trees.items() if m != 'cli' for n, _ in calls(tree, 'print')] == []


def test_warnings_are_changed_only_where_they_are_put_back():
    found = [f'{m}, line {n}' for m, tree in trees.items()
             for n, guarded in calls(tree, 'filterwarnings', 'simplefilter')
             if not guarded]
    assert found + [m for m, tree in trees.items() if list(calls(tree, 'basicConfig', 'captureWarnings'))] == []


state = '''
import importlib, logging, sys, warnings
def state():
    named = {k: v for k, v in logging.root.manager.loggerDict.items() if hasattr(v, 'level')}
    loggers = {'root': logging.root, **named}
    what = lambda v: (v.level, v.handlers[:], v.filters[:], v.propagate, v.disabled)
    return warnings.filters[:], {k: what(v) for k, v in loggers.items()}
others, ours = sys.argv[1].split(), sys.argv[2].split()
for name in others:
    try: importlib.import_module(name)
    except ImportError: pass      # an extra that is not installed
filters, loggers = state()
for name in ours: importlib.import_module(name)
filters_now, loggers_now = state()
print([f for f in filters_now if f not in filters] + [f for f in filters if f not in filters_now])
fresh = (logging.NOTSET, [], [], True, False)
print([k for k, v in loggers_now.items() if not k.startswith('hipt_nb') and v != loggers.get(k, fresh)])
'''


def test_imports_change_nothing_of_others():
    "A fresh process imports what the modules import, and then the modules: no warning filter and no logger has changed"
    names = {name for tree in trees.values() for level, name in imported(tree) if not level}
    others = sorted(name for name in names if name.split('.')[0] != 'hipt_nb')
    res = python('-c', state, ' '.join(others), ' '.join(f'hipt_nb.{m}' for m in trees))
    assert res.returncode == 0, res.stderr[-3000:]
    assert res.stdout.splitlines() == ['[]', '[]'], res.stdout


light = [o for o in 'core slide phantom tissue tiling viewer report cli'.split() if (lib/f'{o}.py').exists()]


def test_light_modules_do_not_load_torch():
    code = f'import sys\nfor m in {light}: __import__("hipt_nb."+m); assert "torch" not in sys.modules, m'
    res = python('-c', code)
    assert res.returncode == 0, res.stderr[-2000:]


names = {'cv2': 'opencv-python-headless', 'PIL': 'pillow', 'sklearn': 'scikit-learn', 'openslide': 'openslide-python',
         'IPython': 'ipython', 'matplotlib_inline': 'matplotlib-inline', 'huggingface_hub': 'huggingface-hub',
         'yaml': 'pyyaml'}
through_others = {'openslide-bin', 'imagecodecs'}            # what openslide and tifffile load themselves
# there with what is declared, or with a notebook
in_notebooks = {'ipython', 'matplotlib-inline', 'ipykernel', 'typing-extensions', 'click', 'nbdev', 'threadpoolctl',
                'google'}  # Colab's own, on Colab alone


def test_requirements_are_what_is_imported():
    used = {n.split('.')[0] for p in modules for level, n in imported(ast.parse(p.read_text('utf-8'))) if not level}
    used = {names.get(n, n).lower().replace('_', '-') for n in used if n not in sys.stdlib_module_names
            and n != 'hipt_nb'}
    extras = {package(r) for k in settings if k.endswith('_requirements') for r in lines(k)}
    declared = {package(r) for r in lines('requirements')}
    assert used - declared - extras - in_notebooks == set(), 'imported but not in settings.ini'
    assert declared - used - through_others == set(), 'in settings.ini but never imported'


# One set of names

def test_names_and_versions_agree():
    assert settings['lib_name'] == pyproject['project']['name'] == 'hipt_nb'
    assert pyproject['tool']['nbdev']['lib_path'] == settings['lib_name']
    assert 'LICENSE' in os.listdir(root) and 'Apache License' in (root/'LICENSE').read_text()[:200]
    low, high = (int(settings[k].split('.')[1]) for k in ('min_python', 'max_python'))
    test = yaml.safe_load((root/'.github/workflows/test.yml').read_text())
    assert test['jobs']['linux']['strategy']['matrix']['python'] == [f'3.{i}' for i in range(low, high + 1)]
    assert f'(3, {low})' in (root/'Makefile').read_text() and f'Python 3.{low}' in (root/'README.md').read_text('utf-8')


def tracked():
    "Text files of the project, without what is generated or ignored"
    for folder, pattern in [('.', '*'), ('nbs', '**/*.ipynb'), ('docs', '*.*'), ('hipt_nb', '*.py'), ('tests', '*.py'),
                            ('.github', '**/*.yml'), ('benchmarks', '*.*')]:
        for p in sorted((root/folder).glob(pattern)):
            if p.is_file() and p.suffix in ('', '.py', '.md', '.toml', '.ini', '.in', '.txt', '.yml', '.ipynb', '.css'):
                yield p


def test_one_owner():
    "Whoever moves the project changes pyproject.toml, and this test says where else"
    docs = urls['Documentation'].rstrip('/')
    assert docs == f'https://{owner.split("/")[0]}.github.io/{owner.split("/")[1]}'
    wrong = []
    for p in tracked():
        text = p.read_text('utf-8', errors='replace')
        found = (re.findall(r'github(?:usercontent)?\.com/([\w-]+/hipt_nb)\b', text)
                 + [f'{u}/{r}' for u, r in re.findall(r'//([\w-]+)\.github\.io/(hipt_nb)\b', text)])
        if set(found) - {owner}: wrong.append(p.name)
    assert wrong == []


def test_version_is_written_once():
    version = re.search(r"__version__ = ['\"](.+?)['\"]", (lib/'__init__.py').read_text('utf-8'))[1]
    assert 'version' not in pyproject['project'] and 'version' not in settings
    assert re.search(rf'^## {re.escape(version)}\b', (root/'CHANGELOG.md').read_text('utf-8'), re.M)


def test_constraints_cover_the_requirements():
    pinned = {package(l): l.split('==')[1] for l in (root/'constraints.txt').read_text().splitlines() if '==' in l}
    wanted = {package(r) for k in settings if k.endswith('requirements') for r in lines(k)}
    assert wanted - set(pinned) == set()
    assert not [p for p in pinned if p.startswith('nvidia')], 'platform wheels are torch\'s business'


def test_make_targets_and_workflows():
    text = (root/'Makefile').read_text()
    targets = set(re.findall(r'^(\w+):', text, re.M))
    told = set(re.match(r'# make ([\w |]+)\.', text)[1].split(' | '))
    assert {'demo', 'test', 'lab', 'book', 'docs', 'clean'} <= told <= targets
    assert set(re.search(r'^\.PHONY: (.+)$', text, re.M)[1].split()) == targets == told | {'help', 'setup'}
    for p in [*(root/'.github/workflows').glob('*.yml'), root/'.ci/run']:
        assert set(re.findall(r'\bmake (\w+)', p.read_text())) <= targets, p.name
    assert os.name == 'nt' or os.access(root/'.ci/run', os.X_OK)


def test_package_data(tmp_path):
    "What is not a module and has to be in the wheel: types, and the pages of report and viewer"
    build = ['build', '--build-base', tmp_path/'base', '--build-lib', tmp_path/'lib']
    res = python('setup.py', '-q', 'egg_info', '--egg-base', tmp_path, *build)
    assert res.returncode == 0, res.stderr[-2000:]
    made = {p.relative_to(tmp_path/'lib').as_posix() for p in (tmp_path/'lib').rglob('*') if p.is_file()}
    assert 'hipt_nb/py.typed' in made
    assert {f'hipt_nb/static/{p.name}' for p in (lib/'static').iterdir()} <= made
    listed = (tmp_path/'hipt_nb.egg-info'/'SOURCES.txt').read_text()
    for name in ('LICENSE', 'CHANGELOG.md', 'SECURITY.md', 'CITATION.cff', 'settings.ini'): assert name in listed, name


def test_citation_agrees():
    cff = yaml.safe_load((root/'CITATION.cff').read_text('utf-8'))
    assert cff['title'] == settings['lib_name'] and cff['license'] == settings['license']
    assert cff['repository-code'] == urls['Repository'] and cff['url'] == urls['Documentation']
    first = cff['references'][0]
    readme = (root/'README.md').read_text('utf-8')
    assert first['title'] in readme and f"{first['start']}--{first['end']}" in readme


def test_templates():
    folder = root/'.github'/'ISSUE_TEMPLATE'
    forms = {p.stem: yaml.safe_load(p.read_text('utf-8')) for p in folder.glob('*.yml')}
    assert set(forms) == {'bug', 'question', 'feature', 'config'}
    for name, form in forms.items():
        if name == 'config': continue
        assert form['name'] and form['description'] and form['labels'], name
        fields = [o for o in form['body'] if o['type'] != 'markdown']
        assert fields and all(o['attributes']['label'] for o in fields)
        assert len({o['id'] for o in fields}) == len(fields)
    assert (root/'.github'/'PULL_REQUEST_TEMPLATE.md').exists()


def test_changelog_is_made_of_bullets():
    "Under every heading bullets, and one table of names"
    text = (root/'CHANGELOG.md').read_text('utf-8')
    sections = re.split(r'^### ', text, flags=re.M)[1:]
    assert {s.splitlines()[0] for s in sections} <= {'Old name, new name', 'Added', 'Changed', 'Removed', 'Fixed'}
    assert text.count('| old name | new name |') == 1
    for s in sections:
        title, *lines = re.split(r'^## ', s, flags=re.M)[0].splitlines()
        if title != 'Old name, new name': assert all(re.match(r'- |  |$', o) or o.endswith(':') for o in lines), title


# The command (what each verb does is in test_cli.py)

def hipt(*args): return python('-c', 'from hipt_nb.cli import main; main()', *args)


def test_page_on_use_names_every_verb():
    res = hipt('--help')
    assert res.returncode == 0, res.stderr[-2000:]
    told = re.findall(r'^\| `hipt (\w+)` \|', (root/'docs'/'pages'/'use.md').read_text('utf-8'), re.M)
    there = re.findall(r'^[\s│]+([a-z]+)\s{2,}\S', res.stdout, re.M)
    assert set(told) == set(there)


@pytest.mark.skipif(os.name == 'nt', reason='counts processor time, which Windows does not give')
def test_help_is_quick():
    "Half a second on a quiet machine; processor time is counted, as tests run side by side"
    import resource
    def cost():
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert hipt('--help').returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert min(cost() for _ in range(3)) < .7


# The docs' own tools

def test_link_check_finds_what_is_broken(tmp_path):
    links = '<a href="b.html#here">b</a> <a href="#top">top</a> <a href="https://x.org/none">out</a>'
    (tmp_path/'a.html').write_text('<h1 id="top">A</h1>' + links)
    (tmp_path/'b.html').write_text('<p id="here"></p><a href="a.html#none"></a><img src="none.png">')
    check = load('check')
    assert list(check.problems(tmp_path)) == ['b.html: a.html#none names no place on that page',
                                              'b.html: none.png leads nowhere']
    assert any('MB' in o for o in check.problems(tmp_path, limit=10))


def test_first_uses_link_to_the_glossary():
    glossary = load('glossary')
    assert len(re.findall(r'^: ', glossary.page.read_text('utf-8'), re.M)) >= 40
    said = '# class token\n`class token`, a class token, and the class token again; [EMA](x.html), EMA'
    text = glossary.linked(said, '../')
    assert text.count('<a class="term"') == 2 and text.startswith('# class token\n`class token`, a <a class="term"')
    assert 'href="../glossary.html#term-exponential-moving-average-ema">EMA</a>' in text
    assert text.count('glossary.html#term-class-token') == 1


def test_check_finds_what_readers_miss(tmp_path):
    "A picture without a caption, and a word that the search does not know"
    (tmp_path/'_images').mkdir()
    for name in ('1.png', '2.png'): (tmp_path/'_images'/name).write_bytes(b'')
    pictures = '<img src="_images/1.png" alt="_images/1.png"><img src="_images/2.png" alt="Nuclei">'
    (tmp_path/'a.html').write_text(pictures)
    index = dict(terms={'slide': 0}, titleterms={}, alltitles={}, indexentries={'confidence interval': []})
    (tmp_path/'searchindex.js').write_text(f'Search.setIndex({json.dumps(index)})')
    found = list(load('check').problems(tmp_path, must=('confidence interval', 'heatmap')))
    assert len(found) == 2 and '_images/1.png' in found[0] and 'heatmap' in found[1]


def test_pages_link_to_pages():
    fix = load('prepare').fix_markdown
    page = nbs/'01_slide.ipynb'
    assert fix('[tiles](04_tiling.ipynb#why)', page) == '<a href="tiling.html#why">tiles</a>'
    link = f'[`Slide.read`]({urls["Documentation"]}slide.html#slide.read)'
    assert fix(link, page) == '<a href="slide.html#slide.read"><code>Slide.read</code></a>'
    assert fix('```\n[tiles](04_tiling.ipynb)\n```', page) == '```\n[tiles](04_tiling.ipynb)\n```'
    assert fix('[tiles](../04_tiling.ipynb)', nbs/'tutorials'/'real.ipynb') == '<a href="../tiling.html">tiles</a>'
    assert fix('::: {.callout-note}\n## Say\nwhat\n:::', page) == ':::{admonition} Say\n:class: note\nwhat\n:::'


def test_sections_say_what_the_code_says():
    "Signature, parameters and comments of a function, a class, a dataclass and a patched method"
    describe = load('api').describe
    code = """def f(a:int,  # pixels
      b=2, c=3,  # both sides
      *args,  # what is left
      d:str='x|y',  # one of `x`, `y`
)->list:  # of names
    'doc'
    return [a]"""
    text, rows = describe(code, 'f')
    assert text == "f(a, b=2, c=3, *args, d='x|y')"
    told = [(['a'], 'int', 'pixels'), (['b', 'c'], '', 'both sides'), (['*args'], '', 'what is left')]
    assert [(r.names, r.type, r.doc) for r in rows[:3]] == told
    assert (rows[-1].names, rows[-1].type, rows[-1].doc) == (['returns'], 'list', 'of names')
    assert r'`x\|y`' not in (shown := load('api').table(rows)) and r"one of `x`, `y`" in shown
    assert describe('class E(ValueError): "one"', 'E') == ('class E(ValueError)', [])
    assert describe('@dataclass\nclass D:\n    a:int  # one\n    b:int=2', 'D')[0] == 'class D(a, b=2)'
    assert describe('@patch\ndef read(self:Slide, x):  # array\n    "doc"', 'Slide.read')[0] == 'read(x)'


def test_every_command_has_an_example():
    "The command's own parser reads it, and every other line with `hipt` on the pages"
    import shlex

    import typer

    from hipt_nb.cli import app
    examples, group = load('commands').EXAMPLES, typer.main.get_command(app)
    assert set(examples) == set(group.commands)
    said = [(verb, line) for verb, text in examples.items() for line in text.splitlines()]
    for p in sorted((root/'docs'/'pages').glob('*.md')):
        said += [(None, line) for block in re.findall(r'```bash\n(.*?)```', p.read_text('utf-8'), re.S)
                 for line in re.split(r'\n| && ', block) if re.match('hipt [a-z]', line)]
    for verb, line in said:
        name, first, *args = shlex.split(line, comments=True)
        assert name == 'hipt' and verb in (None, first), line
        group.commands[first].make_context(first, args)


