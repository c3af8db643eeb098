"""The API sections of a page: signature, parameters, docstring, and the code that a cell exports

Everything is read from the cell itself, so that a page says what the code says."""
import ast
import inspect
import io
import re
import tokenize
import typing
from dataclasses import dataclass
from itertools import groupby

import commands

# Chapters that teach how the method works: their code is read in line. Elsewhere it folds out.
OPEN = {'vit', 'hipt', 'views', 'dino', 'slide_models', 'attention'}


@dataclass
class Param:
    names: list      # parameters that share a comment, as `*args` and `**kwargs` where they are such
    type: str = ''   # annotation
    doc: str = ''    # comment on the parameter's own line


def comments(code):
    "The comment of every line that has one"
    tokens = tokenize.generate_tokens(io.StringIO(code).readline)
    return {t.start[0]: t.string.lstrip('# ').rstrip() for t in tokens if t.type == tokenize.COMMENT}


def find(code, name):
    "Where a cell defines `name`, or the method `Class.name`: in its class, or patched into it"
    cls, _, method = name.rpartition('.')
    defs = ast.FunctionDef, ast.AsyncFunctionDef
    for node in ast.walk(ast.parse(code)):
        if not cls and isinstance(node, (*defs, ast.ClassDef)) and node.name == name: return node
        if cls and isinstance(node, ast.ClassDef) and node.name == cls:
            for o in node.body:
                if isinstance(o, defs) and o.name == method: return o
        if cls and isinstance(node, defs) and node.name == method and node.args.args:
            if re.search(rf'\b{cls}\b', ast.unparse(node.args.args[0].annotation or ast.Constant(''))): return node


def arguments(args):
    "Arguments in the order in which they are written: name with its stars, node, default"
    plain = [*args.posonlyargs, *args.args]
    defaults = [None]*(len(plain) - len(args.defaults)) + args.defaults
    yield from ((a.arg, a, d) for a, d in zip(plain, defaults))
    if args.vararg: yield '*' + args.vararg.arg, args.vararg, None
    elif args.kwonlyargs: yield '*', None, None
    yield from ((a.arg, a, d) for a, d in zip(args.kwonlyargs, args.kw_defaults))
    if args.kwarg: yield '**' + args.kwarg.arg, args.kwarg, None


def text_of(node):
    text = '' if node is None else ast.unparse(node).replace('"', "'")
    return {'field(default_factory=dict)': '{}', 'field(default_factory=list)': '[]'}.get(text, text)


def rows_of(found, said):
    "Parameters with their comments; those that stand on one line with one comment are one row"
    told = [(name, text_of(getattr(node, 'annotation', None)), (default or node).end_lineno)
            for name, node, default in found if node is not None]
    rows = []
    for line, group in groupby(told, key=lambda o: o[2]):
        group = list(group)
        types = list(dict.fromkeys(t for _, t, _ in group if t))
        if line in said: rows.append(Param([n for n, *_ in group], ', '.join(types), said[line]))
        else: rows += [Param([n], t) for n, t, _ in group]
    return rows


def is_dataclass(node):
    return any('dataclass' in text_of(d) for d in node.decorator_list) or 'NamedTuple' in map(text_of, node.bases)


def fields(node):
    for o in node.body:
        if isinstance(o, ast.AnnAssign) and isinstance(o.target, ast.Name): yield o.target.id, o, o.value


def describe(code, name):
    "Signature in one line, and parameters with their comments, of what a cell defines; None where it does not"
    node = find(code, name)
    if node is None: return None
    said, title = comments(code), name.split('.')[-1]
    if isinstance(node, ast.ClassDef):
        init = next((o for o in node.body if isinstance(o, ast.FunctionDef) and o.name == '__init__'), None)
        if init is None and not is_dataclass(node):
            bases = ', '.join(map(text_of, node.bases))
            return f'class {title}({bases})' if bases else f'class {title}', []
        found = list(fields(node)) if init is None else list(arguments(init.args))[1:]
        head, call = 'class ', init
    else:
        found, head, call = list(arguments(node.args)), '', node
        own = '.' in name or found[:1] and found[0][0] in ('self', 'cls')
        if own and not any(text_of(d) == 'staticmethod' for d in node.decorator_list): found = found[1:]
        if any('property' in text_of(d) or 'as_prop' in text_of(d) for d in node.decorator_list): return title, []
    last = max([(d or n).end_lineno for _, n, d in found if n] + [node.lineno])
    returns = getattr(call, 'returns', None)
    of_return = returns is not None and returns.end_lineno == last  # on one line, the comment is that of the result
    rows = rows_of(found, {k: v for k, v in said.items() if k != last} if of_return else said)
    if call is not None:
        told = [said[i] for i in range(last + (not of_return), call.body[0].lineno) if i in said]
        if returns is not None or told: rows.append(Param(['returns'], text_of(returns), ' '.join(told)))
    shown = [n if d is None else f'{n}={text_of(d)}' for n, _, d in found]
    return f'{head}{title}({", ".join(shown)})', rows


def cell_text(text): return text.replace('|', r'\|').replace('\n', ' ')


def code_text(text): return f'`{cell_text(text)}`' if text else ''


def name_text(name): return f'<code>{name}</code>'  # without backticks, so that it does not become a link


def table(rows):
    "Parameters as a table of markdown; nothing where no parameter has a comment"
    if not any(r.doc for r in rows): return ''
    name = lambda r: '*returns*' if r.names == ['returns'] else ', '.join(map(name_text, r.names))
    lines = [f'| {name(r)} | {code_text(r.type)} | {cell_text(r.doc)} |' for r in rows]
    return '\n'.join([':::{div} params', '| parameter | type | what it is |', '|---|---|---|', *lines, ':::'])


def fence(code, kind='python'):
    ticks = '````' if '```' in code else '```'
    return f'{ticks}{kind}\n{code.strip()}\n{ticks}'


def fold(title, text):
    "What a reader opens when they want it"
    return f'<details class="fold">\n<summary>{title}</summary>\n\n{text}\n\n</details>'


def heading(name, anchor, link, prefix=''):
    shown = (prefix + name).replace('_', r'\_')
    return (f'<span id="{anchor}" class="api-anchor"></span>\n\n### {shown}\n\n'
            f'<a class="api-source" href="{link}" aria-label="source of {name}">source</a>')


def section(name, sym, code, module, anchor, link):
    "Heading, signature, docstring and parameters of one name"
    doc = inspect.getdoc(sym) or ''
    if isinstance(sym, type) and not sym.__dict__.get('__doc__'): doc = ''
    told = describe(code, name)
    signature, rows = told or (re.sub(r'\bhipt_nb\.\w+\.', '', f'{name}{inspect.signature(sym)}'), [])
    is_open = module in OPEN
    parts = [heading(name, anchor, link), doc]
    if not is_open or told is None: parts.insert(1, fence(signature))
    params = table(rows)
    if params: parts.append(fold('Parameters', params) if is_open else params)
    return '\n\n'.join(filter(None, parts)) + '\n'


def code_of(code, module, what='Code'):
    "The exported cell: in line where the chapter teaches, folded elsewhere"
    return fence(code) if module in OPEN else fold(what, fence(code))


# Commands

def is_argument(p): return 'Argument' in type(p).__name__


def kind_of(annotation):
    "What is to be typed after an option: its choices, or the name of its type"
    name, inner = getattr(annotation, '__name__', str(annotation)), typing.get_args(annotation)
    if typing.get_origin(annotation) is typing.Literal: return ' or '.join(map(str, inner))
    if inner: return kind_of(next(o for o in inner if o is not type(None)))
    return {'str': 'text', 'int': 'whole number', 'float': 'number', 'Path': 'path', 'bool': ''}.get(name, name.lower())


def option_row(p):
    "An argument or option of the command line, as its `--help` has it"
    names = [p.name.upper()] if is_argument(p) else [*p.opts, *p.secondary_opts]
    kind = '' if getattr(p, 'is_flag', False) else p.metavar or kind_of(p.type_descriptor.annotation)
    told, default = p.help or '', p.default
    if not is_argument(p) and default is not None and default is not False and default is not True and default != []:
        told += f' Default: {default}.'
    if p.required: told += ' Required.'
    return f'| {", ".join(map(code_text, names))} | {cell_text(kind)} | {cell_text(told)} |'


def command_section(verb, command, code, anchor, link):
    "A command of `hipt`: what it does, an example, its options, its code"
    usage = ' '.join(p.name.upper() for p in command.params if is_argument(p))
    rows = [option_row(p) for p in command.params if p.name != 'help' and not getattr(p, 'hidden', False)]
    about = inspect.cleandoc(command.help or '')
    params = '\n'.join([':::{div} params', '| option | value | what it does |', '|---|---|---|', *rows, ':::'])
    return '\n\n'.join([heading(verb, anchor, link, 'hipt '), about, fence(commands.EXAMPLES[verb], 'bash'),
                        f'`hipt {verb}{" " + usage if usage else ""}`, with', params, fold('Code', fence(code))]) + '\n'


def verbs(app):
    "Commands of a typer app, by the name of the function that each calls: `{function: (verb, command)}`"
    import typer
    group = typer.main.get_command(app)
    named = {o.callback.__name__: o.name or o.callback.__name__.replace('_', '-') for o in app.registered_commands}
    return {fn: (verb, group.commands[verb]) for fn, verb in named.items() if verb in group.commands}
