"Commands as jobs of Slurm: what is submitted, what is refused, and, where there is a Slurm, what it makes"
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hipt_nb.phantom import make_slide

pytest.importorskip('submitit', reason="needs submitit: pip install 'hipt_nb[cluster]'")
ROOT = Path(__file__).parents[1]


def hipt(*args, **kw):
    env = {**os.environ, 'PYTHONPATH': str(ROOT)} | kw.pop('env', {})
    r = subprocess.run([sys.executable, '-m', 'hipt_nb.cli', *map(str, args)], capture_output=True, text=True,
                       timeout=300, env=env, **kw)
    return r.returncode, r.stdout, r.stderr


@pytest.fixture(scope='module')
def slides(tmp_path_factory):
    folder = tmp_path_factory.mktemp('slides')
    for i in range(3): make_slide(folder/f'S{i}.tif', label='glandular', seed=i, size=512)
    return folder


def test_the_sbatch_files(slides, tmp_path):
    run = tmp_path/'run'
    code, text, _ = hipt('tile', slides, '--out', run, '--slurm', 'partition=gpu,time=4:00:00', '--jobs', 3,
                         '--dry-run')
    for wanted in ('--array=0-2%3', '--partition=gpu', '--time=240', '--shard 1/3'): assert wanted in text, text
    assert code == 0 and not (run/'tiles').exists()
    code, text, _ = hipt('pretrain', slides, '--out', run, '--slurm', 'nodes=2,gpus=4,time=1440', '--dry-run')
    for wanted in ('--nodes=2', '--ntasks-per-node=4', '--gpus-per-node=4', '--signal=USR2@90'): assert wanted in text
    assert code == 0 and '--array' not in text


def test_what_is_refused(slides, tmp_path):
    def refused(*args, **kw):
        code, _, err = hipt('tile', slides, '--out', tmp_path/'run', *args, **kw)
        assert code == 1
        return err
    assert 'not a setting' in refused('--slurm', 'gpu')
    assert '--jobs' in refused('--slurm', 'time=9', '--shard', '1/2')
    assert 'no command sbatch' in refused('--slurm', 'time=9', env=dict(PATH=str(tmp_path)))


def test_an_array_on_a_real_slurm(slurm, slides, tmp_path):
    run = tmp_path/'run'
    code, out, err = hipt('tile', slides, '--out', run, '--region-size', 512, '--slurm', 'time=10', '--jobs', 2)
    assert code == 0 and 'submitted, 2 tasks' in out, err
    for _ in range(600):
        if len([*run.glob('slurm/*_result.pkl')]) == 2: break
        time.sleep(.5)
    assert {p.stem for p in run.glob('tiles/*.h5')} == {'S0', 'S1', 'S2'}
    code, _, err = hipt('tile', slides, '--out', run, '--region-size', 512, '--slurm', 'partition=nope', '--jobs', 2)
    assert code == 1 and 'invalid partition specified: nope' in err and 'Traceback' not in err
