"""200 slides by 8 shares, one killed at a random moment, one slide broken, submitted again: the files of one process

Shown with plain processes, on a real Slurm and on a Dask cluster of three workers."""
import os
import random
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile

from hipt_nb.run import Run

pytestmark = pytest.mark.faults
ROOT = Path(__file__).parents[2]
N, SHARES = int(os.environ.get('HIPT_SLIDES', 200)), 8
STEPS = {'tile': ('--region-size', 512, '--min-region', .25),
         'embed': ('--model', 'hipt-tiny:random', '--precision', 'float32')}
PRODUCTS = 'tiles/*.h5', 'tiles/*.geojson', 'tiles/*.jpg', 'features/*/*.h5', 'manifest.csv', 'tiles.csv'


def start(*args):
    env = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}
    return subprocess.Popen([sys.executable, '-m', 'hipt_nb.cli', *map(str, args)], stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True, env=env)


def hipt(*args):
    p = start(*args)
    said = p.communicate(timeout=3000)[0]
    return p.returncode, said


def write_slide(path, i):
    "A blob of tissue on white, quickly"
    rng, side = np.random.default_rng(i), 384+128*(i % 3)
    y, x = np.mgrid[:side, :side]/side-.5
    stain = [185, 110, 165]+rng.normal(0, 25, (side, side, 3))
    image = np.where(((x/.45)**2+(y/rng.uniform(.3, .45))**2 < 1)[..., None], stain, 244).clip(0, 255).astype(np.uint8)
    tifffile.imwrite(path, image, tile=(128, 128), compression='jpeg', photometric='rgb', resolution=(20000, 20000),
                     resolutionunit='CENTIMETER')


@pytest.fixture(scope='module')
def slides(tmp_path_factory):
    folder = tmp_path_factory.mktemp('slides')
    for i in range(N-1): write_slide(folder/f'S{i:03}.tif', i)
    (folder/'broken.tif').write_bytes((folder/'S000.tif').read_bytes()[:3000])
    return folder


@pytest.fixture(scope='module')
def alone(slides, tmp_path_factory):
    run = tmp_path_factory.mktemp('alone')/'run'
    for verb, options in STEPS.items(): assert hipt(verb, slides, '--out', run, *options)[0] == 0
    return run


def files(run): return {p.relative_to(run): p for pattern in PRODUCTS for p in run.glob(pattern)}
def written(run): return {k: p.stat().st_mtime_ns for k, p in files(run).items() if p.suffix == '.h5'}


def shares_of(run):
    "Number of each process that does a share of a run"
    found = []
    for p in Path('/proc').glob('[0-9]*'):
        try: args = (p/'cmdline').read_bytes().decode(errors='replace').split('\0')
        except OSError: continue
        if str(run) in args and 'hipt_nb.cli' in args and '--shard' in args: found.append(int(p.name))
    return found


def kill_one(run, verb, seed):
    "End a share with SIGKILL, once some of its files are there"
    wanted = random.Random(seed).randrange(5, N//2)
    pattern = 'tiles/*.h5' if verb == 'tile' else 'features/*/*.h5'
    for _ in range(30000):
        there = shares_of(run)
        if there and len([*run.glob(pattern)]) >= wanted:
            victim = random.Random(seed).choice(there)
            try: os.kill(victim, signal.SIGKILL)
            except ProcessLookupError: continue
            return victim
        time.sleep(.02)
    raise AssertionError('no share came so far')


def check(slides, alone, run, submit):
    "Kill one of the shares of each step, submit again, and compare"
    for seed, (verb, options) in enumerate(STEPS.items()):
        command = verb, slides, '--out', run, *options
        submit(run, command, partial(kill_one, run, verb, seed))
        before = written(run)
        submit(run, command)
        after = written(run)
        assert {k: after[k] for k in before} == before, 'made twice'
    a, b = files(alone), files(run)
    assert set(a) == set(b) and len(a) > 4*(N-1)
    assert [k for k in a if a[k].read_bytes() != b[k].read_bytes()] == []
    logs = [{k: status for k, (status, _) in Run(r).read_log().items() if k[0]} for r in (alone, run)]
    assert logs[0] == logs[1] and sum(s == 'done' for s in logs[1].values()) == 2*(N-1)
    Run(run).tidy_log()
    rows = pd.read_csv(run/'log.csv', keep_default_na=False)
    rows = rows[rows.slide_id != '']
    assert len(rows) == 2*N and not rows.duplicated(['slide_id', 'verb']).any()
    assert not [p for p in run.rglob('.*') if p.name.startswith(('.tmp-', '.lock-'))]


def test_plain_processes(slides, alone, tmp_path):
    def submit(run, command, kill=None):
        jobs = [start(*command, '--shard', f'{i}/{SHARES}') for i in range(1, SHARES+1)]
        victim = kill and kill()
        for p in jobs:
            if p.pid == victim: p.wait()    # until then the system counts it among the living, and its locks with it
        said = {p.pid: p.communicate(timeout=3000)[0] for p in jobs}
        codes = sorted(p.returncode for p in jobs if p.pid != victim)
        assert set(codes) <= {0, 3} and codes.count(3) <= 1, said
        assert kill or codes.count(3) == 1
        time.sleep(1)  # processes of the killed one end by themselves
    check(slides, alone, tmp_path/'run', submit)


def test_slurm(slurm, slides, alone, tmp_path):
    def submit(run, command, kill=None):
        code, said = hipt(*command, '--slurm', 'time=30', '--jobs', SHARES)
        assert code == 0, said
        job = re.search(r'job (\d+)', said)[1]
        if kill: kill()
        for _ in range(6000):
            if not subprocess.run(['squeue', '-h', '-j', job], capture_output=True, text=True).stdout.strip(): break
            time.sleep(.5)
        time.sleep(1)
        said = hipt('status', run)[1]
        assert ('1 of 8 tasks ended: its process was killed' in said) == bool(kill), said
    check(slides, alone, tmp_path/'run', submit)


def test_dask(slides, alone, tmp_path):
    distributed = pytest.importorskip('distributed', reason="needs Dask: pip install 'hipt_nb[dask]'")
    with distributed.LocalCluster(n_workers=3, threads_per_worker=1, dashboard_address=None) as cluster:
        def submit(run, command, kill=None):
            p = start(*command, '--dask', cluster.scheduler_address, '--jobs', SHARES)
            if kill: kill()
            said = p.communicate(timeout=3000)[0]
            assert p.returncode == (9 if kill else 3), said
            time.sleep(1)
        check(slides, alone, tmp_path/'run', submit)
