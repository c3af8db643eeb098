"""A small run of 0.0.1, kept so that later versions prove that they still read it and go on with it

    PYTHONPATH=(a checkout of that version) python tests/golden/make_run_v0.py tests/golden/run-v0

It runs that version's own commands on eight phantom slides, with a pyramid and a recipe small enough to be kept. The
slides are not kept: `slides()` makes them again. `tests/test_old_files.py` takes sizes and commands from here."""
import os
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

PRESET, HALF = 'hipt-mini', 'hipt-half'                # a pyramid that was trained to the end, and one that was stopped
STEPS, STOPPED = 8, 4                                  # of the second training: all, and those that were done
SIZES = dict(n_slides=8, n_patients=8, size=1024, workers=1)

# The commands of the run, to be given in its folder; `TRAIN` are models of slides
TILE = ['tile', 'cohort.csv', '--region-size', '512', '--no-previews']
PRETRAIN = ['pretrain', 'cohort.csv', '--preset', PRESET, '--recipe', 'mini', '--samples1', '32', '--samples2', '16',
            '--batch-size', '8', '--precision', 'float32', '--device', 'cpu']
HALFWAY = ['pretrain', 'cohort.csv', '--preset', HALF, '--level', '1', '--recipe', 'mini', '--samples1', str(8*STEPS),
           '--batch-size', '8', '--precision', 'float32', '--device', 'cpu', '--start', f'models/{PRESET}-level1']
EMBED = ['embed', 'cohort.csv', '--model', PRESET, '--device', 'cpu']
TRAIN = ['train', 'cohort.csv', '--encoder', PRESET, '--model', 'mean', '--folds', '2', '--epochs', '2',
         '--device', 'cpu']
EVALUATE = ['evaluate', 'cohort.csv', '--resamples', '50']
PREDICT = ['predict', 'cohort.csv', '--encoder', PRESET, '--trained', f'models/slide/{PRESET}']
ATTEND = ['attend', 'slides/P01-1.tif', '--model', PRESET, '--top', '1', '--device', 'cpu']


def slides(folder):
    "Eight phantom slides of 1024 px; both versions draw the same ones"
    from hipt_nb.phantom import make_cohort
    return make_cohort(folder, **SIZES)


def small_sizes():
    "Teach the running version a pyramid of two tiny levels, and a recipe with a tiny head"
    from hipt_nb import dino, hipt
    hipt.VITS['vit-mini'] = dict(dim=12, depth=1, heads=2)
    for name in (PRESET, HALF): hipt.PRESETS[name] = dict(levels='vit-mini+vit-mini', patch_size=256)
    small = dino.RECIPES['small']
    views = replace(small.images, n_local=2)
    mini = dino.RECIPES['mini'] = replace(small, out_dim=32, hidden_dim=16, bottleneck_dim=8, images=views)
    if hasattr(dino, 'FORMER_RECIPES'):  # the library knows what `small` was; what is made of it was so, too
        dino.FORMER_RECIPES['mini'] = lambda: dino.override(mini, {'grids.components': False})


def command(*args):
    "One command of `hipt`, in this process"
    from hipt_nb.cli import app
    app([*args, *([] if '--out' in args else ['--out', '.'])], standalone_mode=False)


def stop_halfway():
    "A training that is told to stop, as by Ctrl-C, after some of its steps"
    from hipt_nb.pretrain import Checkpoint
    after_batch = Checkpoint.after_batch

    def stopping(self):
        if self.learn.it >= STOPPED: self.signal = 2
        after_batch(self)

    Checkpoint.after_batch = stopping
    try: command(*HALFWAY)
    except KeyboardInterrupt as stopped: print(stopped)
    finally: Checkpoint.after_batch = after_batch


def train_narrow():
    "Slide models of 12 dimensions, which no option sets: on regions, on patches with level 2, and of survival"
    from hipt_nb.core import Run, read_manifest
    from hipt_nb.finetune import name_columns, train_cohort
    from hipt_nb.splits import make_folds
    narrow = dict(dim=12, epochs=30, lr=.005, dropout=0.)
    for task, settings in [('classify', {}), ('classify', dict(level2='tuned')), ('cox', {})]:
        manifest = name_columns(read_manifest('cohort.csv'), task)
        folds, _ = make_folds(manifest, 2, 0, survival=task != 'classify')
        train_cohort(Run('.'), manifest, PRESET, folds, task, options=dict(task=task), **narrow, **settings)


def cohort():
    "The manifest, with the old column `mpp` and with times for survival"
    import pandas as pd
    table = pd.read_csv('slides/manifest.csv')
    table['path'] = ['slides/' + o for o in table.path]
    survival = dict(time=[3, 8, 2, 9, 4, 7, 1, 6], event=[1, 0, 0, 1, 1, 0, 1, 0])
    table.assign(mpp=.5, **survival).to_csv('cohort.csv', index=False)


def shrink(path):
    "A picture that only has to be there"
    from PIL import Image
    Image.open(path).reduce(4).save(path, quality=70)


def relative_paths(root):
    "No path of the machine it was made on"
    for path in [Path('manifest.csv'), *Path('models/slide').rglob('manifest.csv')]:
        up = '../' * (len(path.parts) - 1)
        path.write_text(path.read_text('utf-8').replace(f'{root.resolve()}/', up), 'utf-8')


def main(out):
    from hipt_nb import hipt
    root = Path(out)
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    os.chdir(root)
    root = Path.cwd()
    slides('slides')
    cohort()
    small_sizes()
    hipt.cpu_likes_bf16 = lambda: False     # level 2 is pretrained on float32 features, wherever this runs
    for step in (TILE, PRETRAIN, EMBED, TRAIN): command(*step)
    train_narrow()
    for step in (EVALUATE, PREDICT, ATTEND): command(*step)
    stop_halfway()
    shutil.copytree(f'models/{HALF}-level1', 'kept')
    command(*HALFWAY)
    shutil.move(f'models/{HALF}-level1/model.safetensors', 'expected-half-level1.safetensors')
    shutil.rmtree(f'models/{HALF}-level1')
    shutil.move('kept', f'models/{HALF}-level1')
    relative_paths(root)
    for path in root.rglob('maps/**/*.jpg'): shrink(path)
    for path in [*root.glob(f'models/{PRESET}-level*/checkpoint.pt'), *root.rglob('*.png')]: path.unlink()
    shutil.rmtree('slides')
    for path in root.rglob('*'):
        if path.suffix in ('.csv', '.json', '.txt', '.geojson'):
            assert not re.search(r'/(home|root|Users|tmp|work)/', path.read_text('utf-8')), path
    print(f'{sum(p.stat().st_size for p in root.rglob("*") if p.is_file()) / 1e6:.2f} MB in {root.name}')


if __name__ == '__main__': main(sys.argv[1])
