"""Memory of patch ABMIL: one training step on a bag of all patches, and a whole training, each in a process of its own.

The features are written to disk once, slide by slide. Peak memory is that of the process (`ru_maxrss`, which counts
Python, torch and the pages of mapped files too)."""
import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from hipt_nb.evaluate import patient_folds
from hipt_nb.features import Features, load_bags, write_features
from hipt_nb.finetune import cross_validate
from hipt_nb.run import Run
from hipt_nb.slide_models import collate
from hipt_nb.tasks import make_task
from hipt_nb.training import Training, new_model

CLASSES = ['a', 'b']


def make_cohort(run, slides, patches, dim, grid=16):
    "Slides of noise, in half of which one patch in a hundred has a signal"
    regions, rng = -(-patches//grid**2), np.random.default_rng(0)
    made_by = dict(encoder_name='made-up', level1_sha256='x', min_tissue=.1)
    rows = []
    for i in range(slides):
        x = rng.standard_normal((regions, grid, grid, dim), dtype=np.float32).astype(np.float16)
        tissue = np.zeros((regions, grid, grid), np.float16)
        tissue.flat[:patches] = 1
        if i%2: x.reshape(-1, dim)[:patches:100, :8] += 3
        coords = np.stack([np.arange(regions), np.zeros(regions)], 1).astype(np.int64)*4096
        write_features(run.features('made-up', f's{i}'), Features(f's{i}', x, None, coords, tissue, made_by))
        rows.append(dict(slide_id=f's{i}', patient=f's{i}', label=CLASSES[i%2]))
    return pd.DataFrame(rows)


def gigabytes(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1e6


def one_step(bags):
    "Forward and backward on all patches of one slide"
    task = make_task(CLASSES)
    model = new_model(bags[0], task, Training('abmil')).train()
    start = time.perf_counter()
    task.loss(model(*collate(bags[:1])), task.target(bags[:1])).backward()
    return time.perf_counter()-start


def measure(what, root, epochs, max_patches):
    torch.set_num_threads(2)
    run, idle = Run(root), gigabytes()
    df = pd.read_csv(run.table('cohort'))
    bags = load_bags(run, df, 'made-up', bags='patch')
    start = time.perf_counter()
    if what=='step': one_step(bags)
    else:
        cross_validate(bags, patient_folds(df, 2), run.root/f'abmil-{max_patches}', CLASSES, model='abmil',
                       epochs=epochs, max_patches=max_patches)
    print(json.dumps(dict(peak_gb=round(gigabytes(), 2), of_it_before=round(idle, 2),
                          seconds=round(time.perf_counter()-start, 1))))


def alone(what, root, epochs, max_patches=None):
    "The same in a new process"
    args = ['--what', what, '--root', root, '--epochs', epochs]
    if max_patches is not None: args += ['--max-patches', max_patches]
    res = subprocess.run([sys.executable, __file__, *map(str, args)], capture_output=True, text=True, check=True)
    return json.loads(res.stdout.splitlines()[-1])


def main(slides, patches, dim, epochs, out):
    with tempfile.TemporaryDirectory() as d:
        run = Run(d)
        make_cohort(run, slides, patches, dim).to_csv(run.table('cohort'), index=False)
        size = sum(p.stat().st_size for p in Path(d).rglob('*.h5'))/1e9
        res = dict(machine=f'{platform.machine()} CPU ({torch.backends.cpu.get_cpu_capability()}), 2 threads',
                   torch=torch.__version__, slides=slides, patches=patches, dimensions=dim, features_gb=round(size, 2),
                   epochs=epochs, folds=2, one_step_on_all_patches=alone('step', d, epochs),
                   training=alone('train', d, epochs), training_on_all_patches=alone('train', d, epochs, 0))
    print(json.dumps(res, indent=1))
    if out:
        Path(out).parent.mkdir(parents=True, exist_ok=True)
        Path(out).write_text(json.dumps(res, indent=1)+'\n')


if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--slides', type=int, default=16)
    p.add_argument('--patches', type=int, default=25_600)
    p.add_argument('--dim', type=int, default=1536)
    p.add_argument('--epochs', type=int, default=2)
    p.add_argument('--out', default='benchmarks/results/patches-cpu.json')
    p.add_argument('--what', help=argparse.SUPPRESS)
    p.add_argument('--root', help=argparse.SUPPRESS)
    p.add_argument('--max-patches', type=int, help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.what: measure(a.what, a.root, a.epochs, a.max_patches)
    else: main(a.slides, a.patches, a.dim, a.epochs, a.out)
