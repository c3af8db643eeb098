"Every advice in a message works when it is followed: commands are parsed by the real parser, and situations walked"
import ast
import contextlib
import io
import re
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

SOURCES = sorted((Path(__file__).parent.parent/'hipt_nb').glob('[a-z]*.py'))


def commands():
    import typer
    from hipt_nb.cli import app
    return typer.main.get_command(app)


def texts(tree):
    "Every whole string of a module: pieces of an f-string joined, with a word for each value"
    inside = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.JoinedStr): continue
        inside |= {id(v) for v in node.values}
        yield ''.join(v.value if isinstance(v, ast.Constant) else 'VALUE' for v in node.values)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside: yield node.value


def advised():
    "(module, command line) of every `'hipt ...'` in a message"
    for path in SOURCES:
        if path.stem=='_modidx': continue
        for text in texts(ast.parse(path.read_text('utf-8'))):
            text = ' '.join(text.split())
            for line in re.findall(r"['(`](hipt [a-z-]+[^'()`]*)['`)]", text): yield path.stem, line


def test_whole_commands_in_messages_parse():
    "Each option exists in the command that it is advised for, and has a value where it wants one"
    app, seen = commands(), set()
    for module, line in sorted(set(advised())):
        _, name, *args = line.split()
        if name not in app.commands: continue  # prose such as (hipt_nb ...), tested elsewhere
        command = app.commands[name]
        with command.make_context(name, [], resilient_parsing=True) as context:
            _, rest, _ = command.make_parser(context).parse_args(args)
        assert not [a for a in rest if a.startswith('-')], (module, line)
        seen.add(line)
    assert len(seen)>15, sorted(seen)


# Situations, and what the tool says about them taken literally

def call(*args):
    "A command in this process: exit code and what it printed, warnings included"
    from hipt_nb import cli
    from hipt_nb.cohort import warn_once
    warn_once.cache_clear()
    before, out, code = sys.argv, io.StringIO(), 0
    sys.argv = ['hipt', *map(str, args)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out): cli.main()
    except SystemExit as e: code = e.code or 0
    finally: sys.argv = before
    return code, ' '.join(out.getvalue().split())


def advice(pattern, *args):
    "What a command that fails, or warns, says to do"
    code, said = call(*args)
    found = re.search(pattern, said)
    assert found, said
    assert 'unexpected' not in said
    return found[1] if found.groups() else found[0]


def works(*args):
    code, said = call(*args)
    assert code==0 and 'failed' not in said and 'refused' not in said, said
    return said


def picture(n=560, seed=0):
    rng = np.random.default_rng(seed)
    a = np.full((n, n, 3), 244, np.uint8)
    a[20:-20, 20:-20] = np.clip([200, 120, 170] + rng.normal(0, 20, (n-40, n-40, 3)), 0, 255)
    return a


def write(path, a=None, res=(20000, 20000)):
    kw = dict(resolution=res, resolutionunit=3) if res else {}
    tifffile.imwrite(path, picture() if a is None else a, photometric='rgb', tile=(256, 256), compression='deflate',
                     **kw)
    return path


TILE = '--region-size', 512, '--blur', 'none'


@pytest.mark.parametrize('res', [None, (40000, 32000)])
def test_pixel_size(tmp_path, res):
    "That is missing, or of pixels that are not square"
    s, run = write(tmp_path/'s.tif', res=res), tmp_path/'run'
    given = advice(r'--slide-mpp [.\d]*\d' if res else '--slide-mpp', 'tile', s, '--out', run, *TILE).split()
    works('tile', s, '--out', run, *TILE, *given, *([] if res else ['.5']))


def test_stretching_keeps_shapes(tmp_path):
    "vips as the message gives it, where it is installed (Debian: libvips-tools)"
    import subprocess
    from hipt_nb.slide import Slide
    if not shutil.which('vips'): pytest.skip('vips is not installed: apt-get install libvips-tools')
    s, out = write(tmp_path/'s.tif', picture()[:448], (20000, 16000)), tmp_path/'out.tif'
    _, said = call('info', s)
    line, mpp = re.search(r'\((vips [^()]*)\) and give --slide-mpp ([.\d]+)', said).groups()
    subprocess.run(line.replace('IN', str(s)).replace('OUT', str(out)).split(), check=True)
    assert Slide(out, slide_mpp=float(mpp)).dimensions==(560, 560)


def test_upsample(tmp_path):
    "In the same run, of which other slides are done"
    write(tmp_path/'fine.tif')
    write(tmp_path/'coarse.tif', res=(10000, 10000))
    option = advice('use (--upsample)', 'tile', tmp_path, '--out', tmp_path/'run', *TILE)
    said = works('tile', tmp_path, '--out', tmp_path/'run', *TILE, option)
    assert '1 done, 1 skipped' in said


def test_other_settings(tmp_path):
    s, run = write(tmp_path/'s.tif'), tmp_path/'run'
    works('tile', s, '--out', run, *TILE)
    line = advice("'(hipt tile --redo)'", 'tile', s, '--out', run, '--region-size', 256, '--blur', 'none')
    works(*line.split()[1:], s, '--out', run, '--region-size', 256, '--blur', 'none')


@pytest.mark.parametrize('pattern', ['(--setting min_area=.*?) keeps more', '(--max-pen .*?) leaves them out'])
def test_what_was_left_out_or_in(tmp_path, pattern):
    "Small pieces, and patches under pen"
    a, s, run = picture(1100), tmp_path/'s.tif', tmp_path/'run'
    if 'pen' in pattern: a[150:900, 150:900] = [30, 60, 190]
    else:
        a[40:] = 244
        a[100:700, 100:700] = picture(640)[20:620, 20:620]
        for x in range(40, 1000, 300): a[850:950, x:x+100] = [190, 110, 170]
    write(s, a)
    extra = [] if 'pen' in pattern else ['--setting', 'min_area=5000']
    kw = ['--tissue', 'hipt'] if 'pen' in pattern else []
    given = advice(pattern, 'tile', s, '--out', run, *TILE, *extra, *kw)
    works('tile', s, '--out', run, *TILE, *kw, *shlex.split(re.sub(r' \(.*?\)', '', given)))


def test_encoding(tmp_path):
    write(tmp_path/'s.tif')
    (tmp_path/'m.csv').write_bytes('path,label\ns.tif,癌\n'.encode('gbk'))
    option = advice(r'--encoding gb18030', 'info', tmp_path/'m.csv')
    works('info', tmp_path/'m.csv', *option.split())


def test_a_folder_that_is_no_run(tmp_path):
    s, run = write(tmp_path/'s.tif'), tmp_path/'run'
    line = advice("'(hipt tile)'", 'embed', s, '--out', run, '--model', 'hipt-tiny:random')
    works(*line.split()[1:], s, '--out', run, *TILE)


@pytest.fixture(scope='module')
def base(tmp_path_factory):
    "Eight small slides, tiled and embedded"
    root = tmp_path_factory.mktemp('base')
    for i in range(8): write(root/f's{i}.tif', picture(seed=i))
    rows = ''.join(f'{root}/s{i}.tif,s{i},P{i},{"ab"[i%2]}\n' for i in range(8))
    (root/'m.csv').write_text(f'path,slide_id,patient,label\n{rows}')
    works('tile', root/'m.csv', '--out', root/'run', *TILE)
    works('embed', root/'m.csv', '--out', root/'run', *EMBED)
    return root


EMBED = '--model', 'hipt-tiny:random', '--device', 'cpu', '--precision', 'float32'


@pytest.fixture
def run(base, tmp_path):
    "A copy of that run, to be spoilt"
    shutil.copytree(base/'run', tmp_path/'run')
    return base/'m.csv', tmp_path/'run'


def test_features_that_are_damaged(run):
    "The file is deleted and the command typed as it is named"
    m, run = run
    path = run/'features'/'hipt-tiny-random'/'s3.h5'
    path.write_bytes(path.read_bytes()[:900])
    line = advice("delete it and run '(hipt embed.*?)' again", 'knn', m, '--out', run, '--folds', 2, '--k', 1)
    path.unlink()
    works(*line.split()[1:], m, '--out', run)
    assert 'left out' not in works('knn', m, '--out', run, '--folds', 2, '--k', 1)


def test_features_of_other_tiles(run):
    m, run = run
    other = '--region-size', 256, '--blur', 'none'
    works('tile', m, '--out', run, *other, '--redo')
    line = advice("'(hipt embed --redo)'", 'knn', m, '--out', run, '--folds', 2, '--k', 1)
    works(*line.split()[1:], m, '--out', run, *EMBED)
    works('knn', m, '--out', run, '--folds', 2, '--k', 1)


def test_status_says_how_it_goes_on(run):
    m, run = run
    for k in (1, 2): (run/'features'/'hipt-tiny-random'/f's{k}.h5').unlink()
    line = shlex.split(advice('go on with: (hipt .*)', 'status', run))
    at = line.index('--out')
    assert (Path.cwd()/line[at+1]).name=='run'
    works(*line[1:at+1], run, *line[at+2:])
    assert '8 of 8 slides done' in call('status', run)[1]


@pytest.mark.faults
def test_steps_that_are_missing(run):
    "Trained slide models, and attention without a level 2"
    m, run = run
    for args in (['evaluate', m], ['predict', m]):
        line = advice("'(hipt train)'", *args, '--out', run)
    works(*line.split()[1:], m, '--out', run, '--folds', 2, '--epochs', 1, '--device', 'cpu')
    works('predict', m, '--out', run)
    works('evaluate', m, '--out', run, '--no-baselines')
    works('attend', m, '--out', run, '--device', 'cpu')


# Products that are older than what they were made from

def test_a_mask_that_was_drawn_again(run, tmp_path):
    "Every command that uses its tiles, or what was made of them, says so"
    from PIL import Image
    m, run = run
    def drawn(upto):
        a = np.zeros((560, 560), np.uint8)
        a[20:upto, 20:upto] = 255
        for i in range(8): Image.fromarray(a).save(tmp_path/f's{i}.png')
    drawn(540)
    works('tile', m, '--out', run, *TILE, '--mask', tmp_path, '--redo')
    works('embed', m, '--out', run, *EMBED, '--redo')
    drawn(400)
    again = "with another mask.*'hipt tile --redo'"
    for args in (['knn', '--folds', 2, '--k', 1], ['probe', '--folds', 2], ['embed', *EMBED]):
        advice(again, args[0], m, '--out', run, *args[1:])
    assert '8 out of date' in call('status', run)[1]


@pytest.fixture(scope='module')
def whole(base, tmp_path_factory):
    "The same with a slide model, maps and predictions"
    run = tmp_path_factory.mktemp('whole')/'run'
    shutil.copytree(base/'run', run)
    works('train', base/'m.csv', '--out', run, *TRAIN)
    works('attend', base/'m.csv', '--out', run, '--device', 'cpu')
    return run


TRAIN = '--folds', 2, '--epochs', 1, '--device', 'cpu'
KNN = '--folds', 2, '--k', 1
EVALUATE = '--no-baselines',
AGAIN = {  # change: command and its options → what it has to say
    'other tiles': {('embed', *EMBED): "other tiles.*'hipt embed --redo'", ('train', *TRAIN): "'hipt embed --redo'",
                    ('knn', *KNN): "'hipt embed --redo'", ('evaluate', *EVALUATE): "'hipt embed --redo'",
                    ('predict',): "'hipt embed --redo'", ('attend', '--device', 'cpu'): "'hipt attend --redo'",
                    ('export', '--features', '--to', 'trident'): "'hipt embed --redo'", ('report',): 'report: .*index',
                    ('status',): "embed.*8 out of date.*train.*out of date.*attend.*8 out of date"},
    'other slide': {('embed', *EMBED): "another file.*'hipt tile --redo'", ('train', *TRAIN): "'hipt tile --redo'",
                    ('knn', *KNN): "'hipt tile --redo'", ('evaluate', *EVALUATE): "'hipt tile --redo'",
                    ('predict',): 'other files than those', ('attend', '--device', 'cpu'): "'hipt tile --redo'",
                    ('status',): 'tile: 7 of 8 slides done, 1 out of date'},
    'other features': {('train', *TRAIN): 'other parameters', ('evaluate', *EVALUATE): 'other features.*--name',
                       ('predict',): 'do not belong to model', ('attend', '--device', 'cpu'): 'other features',
                       ('status',): 'train.*other features.*attend.*8 out of date'},
    'other model': {('attend', '--device', 'cpu'): "trained again: 'hipt attend --redo'",
                    ('status',): 'attend.*8 out of date.*trained again'},
    'other labels': {('train', *TRAIN): 'label of slide s6', ('evaluate', *EVALUATE): 'label of s6 .a then, b now.'},
}


@pytest.mark.faults
@pytest.mark.parametrize('change', AGAIN)
def test_nothing_out_of_date_is_used_in_silence(base, whole, tmp_path, change):
    run, m = tmp_path/'run', tmp_path/'m.csv'
    shutil.copytree(whole, run)
    m.write_text((base/'m.csv').read_text())
    if change=='other tiles': works('tile', m, '--out', run, '--region-size', 256, '--blur', 'none', '--redo')
    if change=='other slide':
        m.write_text(m.read_text().replace(f'{base}/s3.tif', str(write(tmp_path/'s3.tif', picture(seed=99)))))
    if change=='other features':
        works('embed', m, '--out', run, '--model', 'hipt-tiny:random', '--device', 'cpu', '--precision', 'bfloat16',
              '--icc', '--redo')
    if change=='other model':
        shutil.rmtree(run/'models'/'slide')
        works('train', m, '--out', run, '--folds', 2, '--epochs', 2, '--device', 'cpu')
    if change=='other labels':
        m.write_text(m.read_text().replace('P6,a', 'P6,b').replace('P7,b', 'P7,a'))
    for (verb, *options), said in AGAIN[change].items():
        args = [run] if verb=='status' else [m, '--out', run, *options]
        advice(said, verb, *args)
