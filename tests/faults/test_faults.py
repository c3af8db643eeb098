"""A thousand broken inputs: every command answers in one line or does its work, whatever its files hold.

A share with a fixed seed is part of every run, the rest is `pytest -m faults tests/faults`; `FAULTS_SEEDS=0:400`
chooses which, and `FAULTS_RUN` names a folder with the run of an earlier call, for calls in pieces. A fault that was
found becomes a small test of its own in the chapter that it concerns."""
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

here = Path(__file__).resolve().parent
root = here.parents[1]
sys.path.insert(0, str(here))
from mutants import mutate  # noqa: E402

SECONDS, MEMORY = 90, 6*2**30


@pytest.fixture(scope='session')
def hipt():
    env = {**os.environ, 'PYTHONPATH': str(root), 'OMP_NUM_THREADS': '1', 'MPLBACKEND': 'Agg', 'HF_HUB_OFFLINE': '1'}
    server = subprocess.Popen([sys.executable, str(here/'server.py')], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              text=True, env=env)

    def run(folder, *args, seconds=SECONDS, **more):
        out, err = folder/'stdout', folder/'stderr'
        for o in (out, err): o.write_bytes(b'')
        call = dict(args=[str(a) for a in args], cwd=str(folder), stdout=str(out), stderr=str(err),
                    seconds=seconds, memory=MEMORY, **more)
        print(json.dumps(call), file=server.stdin, flush=True)
        res = json.loads(server.stdout.readline())
        return res['rc'], out.read_text(errors='replace')+err.read_text(errors='replace')

    yield run
    server.stdin.close()
    server.wait()


# ---- whole inputs, made once

@pytest.fixture(scope='session')
def small(tmp_path_factory, hipt):
    "A small slide in four formats, a table, an area, a mask"
    from PIL import Image
    import tifffile
    folder = tmp_path_factory.mktemp('small')
    rng = np.random.default_rng(0)
    a = np.full((1024, 1024, 3), 240, np.uint8)
    a[200:800, 200:800] = rng.integers(90, 210, (600, 600, 3))*np.array([1, .6, .9])
    tiled = dict(tile=(256, 256), photometric='rgb', resolutionunit='CENTIMETER', resolution=(20000, 20000))
    with tifffile.TiffWriter(folder/'a.tif') as t:
        t.write(a, compression='jpeg', **tiled)
        t.write(a[::2, ::2], compression='jpeg', subfiletype=1, **tiled)
    tifffile.imwrite(folder/'strips.tif', a, photometric='rgb', rowsperstrip=64, compression='deflate')
    Image.fromarray(a).save(folder/'b.png')
    Image.fromarray(a).save(folder/'c.jpg')
    Image.fromarray((a[..., 1]<230).astype(np.uint8)*255).save(folder/'mask.png')
    square = [[[200, 200], [800, 200], [800, 800], [200, 800], [200, 200]]]
    feature = dict(type='Feature', geometry=dict(type='Polygon', coordinates=square),
                   properties=dict(classification=dict(name='Tumor')))
    (folder/'area.geojson').write_text(json.dumps(dict(type='FeatureCollection', features=[feature])))
    (folder/'slides.csv').write_text('path,slide_id,patient,label,slide_mpp\na.tif,s1,p1,x,0.5\nb.png,s2,p2,y,0.5\n')
    return folder


TILE = '--out', 'run', '--region-size', 512, '--patch-size', 256, '--slide-mpp', .5
SMALL = {  # name: (file that is changed, commands)
    'pyramid': ('a.tif', [('info', 'a.tif'), ('tile', 'a.tif', *TILE)]),
    'strips': ('strips.tif', [('info', 'strips.tif'), ('tile', 'strips.tif', *TILE)]),
    'png': ('b.png', [('tile', 'b.png', *TILE)]),
    'jpeg': ('c.jpg', [('tile', 'c.jpg', *TILE)]),
    'area': ('area.geojson', [('tile', 'slides.csv', *TILE, '--include', 'areas')]),
    'mask': ('mask.png', [('tile', 'slides.csv', *TILE, '--mask', 'masks')]),
    'manifest': ('slides.csv', [('info', 'slides.csv'), ('tile', 'slides.csv', *TILE)]),
}


def work_on(small, name, seed, folder):
    "A copy of the inputs with one of them changed, and the commands that read it"
    file, commands = SMALL[name]
    for p in small.iterdir(): shutil.copy(p, folder/p.name)
    how = mutate(folder/file, seed)
    for kind, copy in (('areas', 'area.geojson'), ('masks', 'mask.png')):
        (folder/kind).mkdir()
        for s in ('s1', 's2'): shutil.copy(folder/copy, folder/kind/f'{s}{Path(copy).suffix}')
    return how, commands


INTERNAL = re.compile('(Key|Type|Attribute|Index|Name|ZeroDivision|Overflow|Assertion|Recursion)Error: ')


def log_of(folder):
    "What the runs in a folder logged"
    return '\n'.join(p.read_text(errors='replace') for p in folder.glob('*/log.csv'))


def judge(hipt, folder, how, commands):
    "No traceback, no signal, no hang, one line on what is wrong; and nothing outside the folder"
    beside = sorted(p.name for p in folder.parent.iterdir())
    for args in commands:
        rc, text = hipt(folder, *args)
        said = f'{how}: hipt {" ".join(map(str, args))} -> {rc}\n{text[-3000:]}'
        assert rc in (0, 1, 2), said
        assert 'Traceback' not in text and 'unexpected' not in text, said
        if rc==1: assert 'hipt: ' in text, said
        assert not INTERNAL.search(text+log_of(folder)), said+log_of(folder)
    assert sorted(p.name for p in folder.parent.iterdir())==beside, f'{how}: wrote beside its folder'


def seeds(default):
    first, last = map(int, os.environ.get('FAULTS_SEEDS', default).split(':'))
    return range(first, last)


@pytest.mark.parametrize('name', SMALL)
def test_a_share_of_broken_inputs(hipt, small, tmp_path, name):
    for seed in range(2):
        folder = tmp_path/str(seed)
        folder.mkdir()
        judge(hipt, folder, *work_on(small, name, seed, folder))


@pytest.mark.faults
@pytest.mark.parametrize('seed', seeds('0:60'))
@pytest.mark.parametrize('name', SMALL)
def test_broken_inputs(hipt, small, tmp_path, name, seed): judge(hipt, tmp_path, *work_on(small, name, seed, tmp_path))


# ---- a whole run, in which one file is changed

@pytest.fixture(scope='session')
def finished(tmp_path_factory, hipt):
    "Every step on eight tiny slides, and what other tools would have made of them"
    from hipt_nb.phantom_cohort import make_cohort
    if kept := os.environ.get('FAULTS_RUN'): return Path(kept)
    folder = tmp_path_factory.mktemp('finished')
    make_cohort(folder/'run'/'cohort', n_slides=8, n_patients=8, size=1024, workers=1)
    cohort = 'run/cohort/manifest.csv', '--out', 'run'
    few = '--samples1', 8, '--samples2', 4, '--batch-size', 4
    for args in (('tile', *cohort, '--region-size', 512, '--blur', 'none'),
                 ('pretrain', *cohort, '--preset', 'hipt-tiny', '--recipe', 'small', *few),
                 ('embed', *cohort), ('train', *cohort, '--folds', 2, '--epochs', 1), ('predict', *cohort),
                 ('evaluate', *cohort, '--no-baselines'), ('attend', *ONE), ('report', *cohort),
                 *(('export', *cohort, '--to', tool, '--features') for tool in ('trident', 'clam', 'stamp'))):
        rc, text = hipt(folder, *args, seconds=900)
        assert rc==0, text
    (folder/'splits').mkdir()
    for k in range(2):
        sides = [f'{i},P0{i+1+4*k}-1,P0{i+5-4*k}-1,P0{i+7-4*k}-1' for i in range(2)]
        (folder/'splits'/f'splits_{k}.csv').write_text('\n'.join([',train,val,test', *sides, '']))
    square = [[[100, 100], [600, 100], [600, 600], [100, 600], [100, 100]]]
    feature = dict(type='Feature', id='00000000-0000-4000-8000-000000000001',
                   geometry=dict(type='Polygon', coordinates=square),
                   properties=dict(objectType='annotation', name='seen', classification=dict(name='Tumor')))
    (folder/'run'/'notes').mkdir()
    (folder/'run'/'notes'/'P01-1.geojson').write_text(json.dumps(dict(type='FeatureCollection', features=[feature])))
    return folder


ALL = 'run/manifest.csv', '--out', 'run'
ONE = 'run/cohort/P01-1.tif', '--out', 'run'
ENCODER = '--encoder', 'hipt-tiny'
EMBED = 'embed', *ONE
REPORT = 'report', *ALL
FINISHED = {  # name: (file that is changed, what is taken away first, commands)
    'tiles': ('tiles/P01-1.h5', ['features/hipt-tiny/P01-1.h5'], [EMBED, REPORT]),
    'features': ('features/hipt-tiny/P01-1.h5', [],
                 [('knn', *ALL, *ENCODER, '--folds', 2),
                  ('train', *ALL, *ENCODER, '--folds', 2, '--epochs', 1, '--name', 'x'),
                  ('attend', *ONE, *ENCODER), REPORT]),
    'split files': ('../splits/*.csv', [],
                    [('train', *ALL, *ENCODER, '--epochs', 1, '--name', 'x', '--splits', 'splits')]),
    'notes': ('notes/*.geojson', [], [('view', 'run', '--static', 'pages', *ENCODER), REPORT]),
    'record of a training': ('models/hipt-tiny-level*/config.json', [],
                             [('pretrain', *ALL, '--preset', 'hipt-tiny', '--recipe', 'small', '--samples1', 8,
                               '--samples2', 4, '--batch-size', 4)]),
    'maps': ('maps/hipt-tiny/*.h5', [], [('view', 'run', '--static', 'pages', *ENCODER), ('export', *ALL), REPORT]),
    'pyramid config': ('models/hipt-tiny/config.json', ['features/hipt-tiny/P01-1.h5'], [EMBED, REPORT]),
    'pyramid weights': ('models/hipt-tiny/model.safetensors', ['features/hipt-tiny/P01-1.h5'], [EMBED]),
    'slide model config': ('models/slide/*/config.json', [], [('evaluate', *ALL, '--no-baselines'), REPORT]),
    'slide model weights': ('models/slide/*/fold0/model.safetensors', [], [('predict', *ALL, *ENCODER)]),
    'predictions': ('models/slide/*/predictions.csv', [], [('evaluate', *ALL, '--no-baselines'), REPORT]),
    'run.json': ('run.json', ['features/hipt-tiny/P01-1.h5'], [EMBED, ('tile', *ALL), REPORT]),
    'log': ('log.csv', [], [EMBED, REPORT]),
    'manifest of the run': ('manifest.csv', [], [('view', 'run', '--static', 'pages', *ENCODER), REPORT]),
    'table of the report': ('evaluation/*.csv', [], [REPORT]),
    **{tool: (f'export/{tool}/**/*.h5', [],
              [('import', '--from', f'run/export/{tool}', '--out', 'new', '--slide-mpp', .5)])
       for tool in ('trident', 'clam', 'stamp')},
}


def _copy(source, target):
    "Small text files and whatever may be appended to are copied; the rest is linked"
    if Path(source).suffix in ('.csv', '.json', '.geojson'): shutil.copy(source, target)
    else: os.link(source, target)


def work_on_run(finished, name, seed, folder):
    "A copy of the run with one of its files changed, and the commands that read it"
    pattern, gone, commands = FINISHED[name]
    shutil.copytree(finished, folder, copy_function=_copy, dirs_exist_ok=True)
    for p in gone: (folder/'run'/p).unlink()
    files = sorted(p for p in (folder/'run').glob(pattern) if p.is_file())
    assert files, f'{name}: the run holds no {pattern}'
    chosen = files[seed % len(files)]
    data = chosen.read_bytes()
    chosen.unlink()  # it may be a link
    chosen.write_bytes(data)
    how = mutate(chosen, seed)
    return f'{how} in {os.path.relpath(chosen, folder)}', commands


@pytest.mark.parametrize('name', FINISHED)
def test_a_share_of_broken_files_of_a_run(hipt, finished, tmp_path, name):
    judge(hipt, tmp_path, *work_on_run(finished, name, 1000, tmp_path))


@pytest.mark.faults
@pytest.mark.parametrize('seed', seeds('0:40'))
@pytest.mark.parametrize('name', FINISHED)
def test_broken_files_of_a_run(hipt, finished, tmp_path, name, seed):
    judge(hipt, tmp_path, *work_on_run(finished, name, seed, tmp_path))


# ---- many more, by what reads a file alone, which is far quicker than a command

RUN = 'from hipt_nb.run import Run; run = Run("run")\n'
MODEL = 'from hipt_nb.trained import Trained; t = Trained("run/models/slide/hipt-tiny")\n'
READS = {  # name: what reads it
    'tiles': 'from hipt_nb.tiling import read_tiles; t = read_tiles("run/tiles/P01-1.h5"); t.mask(); t.xy()',
    'features': 'from hipt_nb.features import read_features; f = read_features("run/features/hipt-tiny/P01-1.h5")\n'
                'f.mask(); f.flat()',
    'maps': 'from hipt_nb.attend import read_maps; read_maps("run/maps/hipt-tiny/P01-1.h5")',
    'pyramid config': 'from hipt_nb.hipt import HIPT; HIPT.from_pretrained("run/models/hipt-tiny")',
    'pyramid weights': 'from hipt_nb.hipt import HIPT; HIPT.from_pretrained("run/models/hipt-tiny")',
    'slide model config': MODEL+'t.folds, t.classes, t.predictions, t.models(), t.decision(0), t.pooled, t.level',
    'slide model weights': MODEL+'t.models()',
    'predictions': MODEL+'t.predictions; t.held_out("P01-1")',
    'run.json': RUN+'[(run.recorded(k), run.plan(k)) for k in run.records()]',
    'log': RUN+'run.read_log(); run.tidy_log()',
    'manifest of the run': RUN+'run.manifest(); run.case("P01-1").slide',
    'split files': 'from hipt_nb.splits import read_splits; read_splits("splits")',
    'notes': 'from hipt_nb.slide import Slide; from hipt_nb.notes import read_notes\n'
             'read_notes("run/notes/P01-1.geojson", Slide("run/cohort/P01-1.tif"))',
    **{tool: 'from hipt_nb.layouts import find_files, holds_features, read_flat, slides_of\n'
             f'folder = "run/export/{tool}"; ids = slides_of(folder).slide_id; holds_features(folder, ids)\n'
             '[read_flat(f, s) for s,f in find_files(folder).items()]' for tool in ('trident', 'clam', 'stamp')},
}


@pytest.mark.faults
@pytest.mark.parametrize('name', READS)
def test_readers(hipt, finished, tmp_path, name):
    faults = []
    for seed in seeds('100:160'):
        folder = tmp_path/str(seed)
        how, _ = work_on_run(finished, name, seed, folder)
        rc, text = hipt(folder, python=READS[name])
        if rc not in (0, 1) or 'Traceback' in text: faults.append(f'{how}, seed {seed}: {rc}\n{text[-1500:]}')
        shutil.rmtree(folder)
    assert not faults, '\n\n'.join(faults)


# ---- files that cannot be written

WRITES = {  # name: (what is taken away first, command)
    'tile': (['tiles/P01-1.h5'], ('tile', *ALL, '--region-size', 512, '--blur', 'none')),
    'embed': (['features/hipt-tiny/P01-1.h5'], EMBED),
    'pretrain': ([], ('pretrain', *ALL, '--preset', 'hipt-tiny-3', '--level', 1, '--recipe', 'small', '--samples1', 8,
                      '--batch-size', 4)),
    'train': ([], ('train', *ALL, *ENCODER, '--folds', 2, '--epochs', 1, '--name', 'x')),
    'attend': (['maps/hipt-tiny/P01-1.h5'], ('attend', *ONE, *ENCODER)),
    'export': ([], ('export', *ALL, '--to', 'slide2vec', '--features', *ENCODER)),
    'view': ([], ('view', 'run', '--static', 'pages', *ENCODER)),
    'report': ([], REPORT),
}


@pytest.mark.faults
@pytest.mark.parametrize('name', WRITES)
def test_a_file_that_becomes_too_large(hipt, finished, tmp_path, name):
    "What a full disk does, by a limit of the system: one line, nothing half written, and the next call goes on"
    gone, args = WRITES[name]
    shutil.copytree(finished, tmp_path, copy_function=_copy, dirs_exist_ok=True)
    for p in gone: (tmp_path/'run'/p).unlink()
    rc, text = hipt(tmp_path, *args, largest=3000)
    assert rc==1 and 'Traceback' not in text and 'unexpected' not in text, text[-3000:]
    assert [l for l in text.splitlines() if l.startswith('hipt: ') and 'cannot be written' in l], text[-3000:]
    assert not [p for p in tmp_path.rglob('.tmp-*')]
    rc, text = hipt(tmp_path, *args)
    assert rc==0, text[-3000:]
