"""A thousand broken inputs: every command answers in one line or does its work, whatever its files hold.

A share with a fixed seed is part of every run, the rest is `pytest -m faults tests/faults`; `FAULTS_SEEDS=0:400`
chooses which, `FAULTS_RUN` names a folder that keeps the whole run for the next call, for calls in pieces, and
`FAULTS_LOG` a file that gets a line for every command: what was broken, and what it said. A fault that was found becomes
a small test of its own in the chapter that it concerns."""
import json
import os
import random
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
from mutants import mutate  # noqa: E402
from whole import ALL, EMBED, ENCODER, ONE, fresh, keep  # noqa: E402


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


INTERNAL = re.compile(r'\b[A-Za-z]+(Error|Exception): ')


def log_of(folder):
    "What the runs in a folder logged"
    return '\n'.join(p.read_text(errors='replace') for p in folder.glob('*/log.csv'))


def judge(hipt, folder, how, commands):
    "No traceback, no signal, no hang, one line on what is wrong; and nothing outside the folder"
    before, faults = _around(folder), []
    for args in commands:
        rc, text = hipt(folder, *args)
        fault = fault_of(rc, text, text+log_of(folder))
        keep(how, args, rc, fault, text)
        if fault: faults.append(f'{how}: {fault}: hipt {" ".join(map(str, args))} -> {rc}\n{text[-3000:]}{log_of(folder)}')
    assert not faults, '\n\n'.join(faults)
    assert _around(folder)==before, f'{how}: wrote outside its folder'


def fault_of(rc, text, logged):
    "What is wrong with how a command ended; empty where nothing is"
    return ('hang' if rc=='hang' else 'signal' if rc<0 else 'traceback' if rc not in (0, 1, 2) or 'Traceback' in text
            else 'unforeseen' if 'unexpected' in text else 'no line' if rc==1 and 'hipt: ' not in text
            else "a library's words" if INTERNAL.search(logged) else '')


def _around(folder):
    "What is beside a folder, and beside the folder that it is in"
    return sorted(str(p) for up in (folder.parent, folder.parent.parent) for p in up.iterdir())


def seeds(default):
    first, last = map(int, os.environ.get('FAULTS_SEEDS', default).split(':'))
    return range(first, last)


@pytest.mark.parametrize('name', SMALL)
def test_a_share_of_broken_inputs(hipt, small, tmp_path, name):
    for seed in range(2):
        folder = tmp_path/str(seed)/'here'
        folder.mkdir(parents=True)
        judge(hipt, folder, *work_on(small, name, seed, folder))


@pytest.mark.faults
@pytest.mark.parametrize('seed', seeds('0:60'))
@pytest.mark.parametrize('name', SMALL)
def test_broken_inputs(hipt, small, tmp_path, name, seed):
    folder = tmp_path/'work'/'here'
    folder.mkdir(parents=True)
    judge(hipt, folder, *work_on(small, name, seed, folder))


# ---- a whole run, in which one file is changed

REPORT = 'report', *ALL
RETILE = 'tile', *ALL, '--region-size', 512, '--blur', 'none'
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
    'run.json': ('run.json', ['features/hipt-tiny/P01-1.h5'], [EMBED, RETILE, REPORT]),
    'log': ('log.csv', [], [EMBED, REPORT]),
    'manifest of the run': ('manifest.csv', [], [('view', 'run', '--static', 'pages', *ENCODER), REPORT]),
    'table of the report': ('evaluation/**/*.csv', [], [REPORT]),
    'metrics': ('evaluation.csv', [], [REPORT]),
    'tables of the run': ('[tp]*s.csv', [], [RETILE, REPORT]),
    'log of a training': ('models/hipt-tiny-level*/log.csv', [], [REPORT]),
    **{folder.split('/')[0]: (f'export/{folder}/**/*.h5', [],
                              [('import', '--from', f'run/export/{folder}', '--out', 'new', '--slide-mpp', .5,
                                '--patch-width', 256, *ENCODER)])
       for folder in ('trident/20x_256px_0px_overlap', 'clam/features_hipt-tiny', 'stamp/hipt-tiny')},
}


def work_on_run(finished, name, seed):
    "The run with one of its files changed, and the commands that read it"
    pattern, gone, commands = FINISHED[name]
    folder = fresh(finished)
    for p in gone: (folder/'run'/p).unlink()
    files = sorted(p for p in (folder/'run').glob(pattern) if p.is_file())
    assert files, f'{name}: the run holds no {pattern}'
    chosen = files[0 if seed is None else seed % len(files)]
    data = chosen.read_bytes()
    chosen.unlink()  # it may be a link
    chosen.write_bytes(data)
    how = 'nothing' if seed is None else mutate(chosen, seed)
    return folder, f'{how} in {os.path.relpath(chosen, folder)}', commands


def one_of(commands, seed): return [random.Random(seed).choice(commands)]


@pytest.mark.parametrize('name', FINISHED)
def test_a_share_of_broken_files_of_a_run(hipt, finished, name):
    folder, how, commands = work_on_run(finished, name, 1000)
    judge(hipt, folder, how, one_of(commands, 1000))


@pytest.mark.faults
@pytest.mark.parametrize('name', FINISHED)
def test_whole_files_of_a_run(hipt, finished, name):
    "What the mutants are compared with: nothing is wrong where nothing is broken"
    folder, _, commands = work_on_run(finished, name, None)
    for args in commands:
        rc, text = hipt(folder, *args)
        assert rc==0, text[-3000:]


@pytest.mark.faults
@pytest.mark.parametrize('seed', seeds('0:40'))
@pytest.mark.parametrize('name', FINISHED)
def test_broken_files_of_a_run(hipt, finished, name, seed):
    folder, how, commands = work_on_run(finished, name, seed)
    judge(hipt, folder, how, one_of(commands, seed))


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
def test_readers(hipt, finished, name):
    faults = []
    for seed in seeds('100:160'):
        folder, how, _ = work_on_run(finished, name, seed)
        rc, text = hipt(folder, python=READS[name])
        if rc not in (0, 1) or 'Traceback' in text: faults.append(f'{how}, seed {seed}: {rc}\n{text[-1500:]}')
    assert not faults, '\n\n'.join(faults)


# ---- files that cannot be written

WRITES = {  # name: (what is taken away first, command)
    'tile': (['tiles/P01-1.h5'], RETILE),
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
def test_a_file_that_becomes_too_large(hipt, finished, name):
    "What a full disk does, by a limit of the system: one line, nothing half written, and the next call goes on"
    gone, args = WRITES[name]
    folder = fresh(finished)
    for p in gone: (folder/'run'/p).unlink()
    rc, text = hipt(folder, *args, largest=3000)
    assert rc==1 and 'Traceback' not in text and 'unexpected' not in text, text[-3000:]
    assert [l for l in text.splitlines() if l.startswith('hipt: ') and 'cannot be written' in l], text[-3000:]
    assert not [p for p in folder.rglob('.tmp-*')]
    rc, text = hipt(folder, *args)
    assert rc==0, text[-3000:]
