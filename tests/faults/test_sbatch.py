"The sbatch files of `docs/slurm`, submitted to a real Slurm"
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from hipt_nb.phantom import make_slide

pytestmark = pytest.mark.faults
ROOT = Path(__file__).parents[2]
FILES = ROOT/'docs'/'slurm'


@pytest.fixture(scope='module')
def folder(slurm, tmp_path_factory):
    "Where a user works: a manifest, slides, and `hipt` on the path"
    folder = tmp_path_factory.mktemp('work')
    (folder/'bin').mkdir()
    for name, module in (('hipt', 'hipt_nb.cli'), ('torchrun', 'torch.distributed.run')):
        (folder/'bin'/name).write_text(f'#!/bin/sh\nexec {sys.executable} -m {module} "$@"\n')
        (folder/'bin'/name).chmod(0o755)
    for i in range(6): make_slide(folder/f'S{i}.tif', label='glandular', seed=i, size=512)
    ids = [f'S{i}' for i in range(6)]
    rows = dict(path=[f'{s}.tif' for s in ids], slide_id=ids, patient=ids, label=['ab'[i % 2] for i in range(6)])
    pd.DataFrame(rows).to_csv(folder/'slides.csv', index=False)
    return folder


def sbatch(folder, name, *options, **settings):
    "Submit a file, wait until it has ended, and give what its tasks said"
    path = os.pathsep.join([str(folder/'bin'), os.environ['PATH']])
    env = {**os.environ, 'PYTHONPATH': str(ROOT), 'PATH': path} | settings
    said = subprocess.run(['sbatch', *options, str(FILES/name)], capture_output=True, text=True, cwd=folder, env=env)
    assert said.returncode == 0, said.stderr
    job = re.search(r'\d+', said.stdout)[0]
    for _ in range(2400):
        if not subprocess.run(['squeue', '-h', '-j', job], capture_output=True, text=True).stdout.strip(): break
        time.sleep(.5)
    return '\n'.join(p.read_text() for p in sorted(folder.glob(f'*-{job}*.out')))


def test_as_users_write_them(folder):
    run = folder/'run'
    said = sbatch(folder, 'embed.sbatch', '--array=1-2', MODEL='hipt-tiny:random', TILING='--region-size 512')
    assert len([*run.glob('features/hipt-tiny-random/*.h5')]) == 6, said
    said = sbatch(folder, 'pretrain.sbatch', '--nodes=1', PRESET='hipt-tiny', PER_NODE='2',
                  PRETRAINING='--samples1 64 --samples2 32 --batch-size 8 --device cpu --anyway')
    assert (run/'models'/'hipt-tiny'/'config.json').exists(), said
    said = sbatch(folder, 'train.sbatch', '--array=1-2', ENCODER='hipt-tiny-random', FOLDS='2', TRAINING='--epochs 1')
    assert (run/'models'/'slide'/'hipt-tiny-random'/'predictions.csv').exists(), said
