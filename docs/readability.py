"""Count what makes notebooks hard or easy to read, here and, if a path is given, in another checkout beside it

    python docs/readability.py [path of another checkout]        # its numbers come first: before | after

Counted over the exported code cells of `nbs/`. The *body* of a cell is its code without directives, signatures (with
their comments on parameters) and docstrings, every line without its indentation. A *run* is a row of exported cells
with no other code cell between them; cells that only import neither make a run longer nor end it. A module *spells a
run's layout* where a name in `LAYOUT`, or a fold's folder, is a part of a string that is joined to a path with `/` or
searched for with `glob`; the module that defines `Run` may. Parameters are counted without `self`."""
import ast
import json
import re
import sys
from pathlib import Path
from statistics import median

LAYOUT = set('tiles features models slide maps viewer evaluation notes export run.json log.csv tiles.csv '
             'predictions.csv validation.csv epochs.csv history.csv evaluation.csv comparisons.csv '
             'config.json model.safetensors'.split())
FUNCTIONS = ast.FunctionDef, ast.AsyncFunctionDef
DEFINITIONS = *FUNCTIONS, ast.ClassDef


def code_cells(path):
    "(source without directives, whether it is exported) of every code cell of a notebook"
    for cell in json.loads(path.read_text('utf-8'))['cells']:
        if cell['cell_type'] == 'code':
            text = ''.join(cell['source'])
            yield re.sub(r'^#\|.*\n?', '', text, flags=re.M), bool(re.search(r'^#\|\s*exports?\b', text, re.M))


def is_docstring(node):
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def body(source):
    "The body of a cell"
    lines = source.encode().splitlines(keepends=True)
    left = bytearray(source.encode())
    place = lambda line, column: sum(map(len, lines[:line - 1])) + column
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, DEFINITIONS): continue
        first, start = node.body[0], place(node.lineno, node.col_offset)
        if is_docstring(first): end = place(first.end_lineno, first.end_col_offset)
        else: end = place(first.lineno, first.col_offset)
        left[start:end] = b' ' * (end - start)
    return '\n'.join(filter(None, map(str.strip, left.decode().splitlines())))


def only_imports(source):
    return all(isinstance(o, (ast.Import, ast.ImportFrom)) for o in ast.parse(source).body)


def public(tree): return [o for o in tree.body if isinstance(o, DEFINITIONS) and o.name[0] != '_']


def count_notebook(path):
    "Lengths of bodies, long lines, longest run and cells with several definitions"
    sizes, lines, run, longest, several = [], [], 0, 0, 0
    for source, exported in code_cells(path):
        if not exported: run = 0
        elif not only_imports(source):
            sizes.append(len(body(source)))
            lines += map(len, source.splitlines())
            several += len(public(ast.parse(source))) > 1
            run += 1
            longest = max(longest, run)
    return dict(sizes=sizes, over120=sum(n > 120 for n in lines), over140=sum(n > 140 for n in lines),
                run=longest, several=several)


def parameters(function):
    a = function.args
    named = [o.arg for o in (*a.posonlyargs, *a.args, *a.kwonlyargs, a.vararg, a.kwarg) if o]
    return len(named) - (named[:1] == ['self'])


def path_parts(node):
    "What is joined or searched for by an expression `a/b` or a call of `glob`"
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div): return [node.left, node.right]
    if isinstance(node, ast.Call) and getattr(node.func, 'attr', '') in ('glob', 'rglob'): return node.args
    return []


def spelled(tree):
    "Names of a run's layout that a module joins to paths or searches for"
    parts = [p for node in ast.walk(tree) for p in path_parts(node)]
    texts = [getattr(c, 'value', None) for p in parts for c in getattr(p, 'values', [p])]   # an f-string has several
    names = {n for t in texts if isinstance(t, str) for n in t.split('/')}
    return {n for n in names if n in LAYOUT or re.match(r'fold\*?$', n)}


def exported_names(tree):
    found = [o.value for o in tree.body if isinstance(o, ast.Assign) and getattr(o.targets[0], 'id', '') == '__all__']
    return ast.literal_eval(found[0]) if found else []


def count_notebooks(root):
    "`{notebook: counts}` of those that export something, and of all together"
    paths = [p.relative_to(root/'nbs') for p in sorted((root/'nbs').rglob('*.ipynb'))]
    books = {p.with_suffix('').as_posix(): count_notebook(root/'nbs'/p) for p in paths
             if not any(o[0] in '._' for o in p.parts)}
    books = {k: v for k, v in books.items() if v['sizes']}
    total = {k: sum(v[k] for v in books.values()) for k in ('over120', 'over140', 'several')}
    total['sizes'] = [n for v in books.values() for n in v['sizes']]
    return {**books, 'all notebooks': total | dict(run=max(v['run'] for v in books.values()))}


def count_modules(root):
    "Counts of all modules together, and what of a run's layout each spells"
    trees = {p.stem: ast.parse(p.read_text('utf-8')) for p in sorted((root/'hipt_nb').glob('*.py')) if p.name[0] != '_'}
    functions = [o for t in trees.values() for o in ast.walk(t) if isinstance(o, FUNCTIONS)]
    owners = {m for m, t in trees.items() if any(getattr(o, 'name', '') == 'Run' for o in t.body)}
    layout = {m: names for m, t in trees.items() if m not in owners and (names := spelled(t))}
    return {'modules': len(trees),
            'exported names': sum(len(exported_names(t)) for t in trees.values()),
            'functions with eight or more parameters': sum(parameters(f) >= 8 for f in functions),
            "modules that spell a run's layout": len(layout)}, layout


def p90(sizes): return sorted(sizes)[round(.9 * (len(sizes) - 1))]


COLUMNS = {'cells': lambda b: len(b['sizes']), 'median': lambda b: round(median(b['sizes'])),
           'p90': lambda b: p90(b['sizes']), '>120': lambda b: b['over120'], '>140': lambda b: b['over140'],
           'run': lambda b: b['run'], '>1 public': lambda b: b['several']}


def main(*others):
    roots = [Path(o) for o in (*others, Path(__file__).resolve().parents[1])]
    books, modules = [count_notebooks(r) for r in roots], [count_modules(r) for r in roots]
    beside = lambda values: ' | '.join(f'{v:>5}' for v in values)
    width = 16 if others else 10
    print(f"{'':24}" + ''.join(f'{c:>{width}}' for c in COLUMNS))
    for name in sorted({k for b in books for k in b}, key=lambda k: (k == 'all notebooks', k)):
        cells = [beside(f(b[name]) if name in b else '' for b in books) for f in COLUMNS.values()]
        print(f'{name:24}' + ''.join(f'{c:>{width}}' for c in cells))
    for name in modules[-1][0]: print(f'{name:42}' + beside(totals[name] for totals, _ in modules))
    for module, names in modules[-1][1].items(): print(f'  {module}: {", ".join(sorted(names))}')


if __name__ == '__main__': main(*sys.argv[1:])
