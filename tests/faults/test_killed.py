"""Commands that are killed (SIGKILL) at any moment, and started again: the same bytes as from one that was not, the
rows of the log included, and nothing is left behind.

A moment is a step between two changes of files (a rename, a removal, a file opened for writing), of which a command
makes some dozens, so that all the gaps between them can be met; every third is a time instead, in the midst of
computing. Both are drawn by a seed: `FAULTS_KILLS=0:20` says which."""
import csv
import hashlib
import json
import os
import random
import re
import shutil
import time

import pytest

from whole import ALL, ENCODER, fresh, keep

FEW = '--preset', 'hipt-tiny', '--recipe', 'small', '--samples1', 48, '--samples2', 32, '--batch-size', 4
THREE = 'run/cohort/three.csv', '--out', 'run'   # of the eight slides
KILLED = {  # name: (what is taken away first, command)
    'tile': (['tiles/P0[123]*', 'tiles.csv'], ('tile', *THREE, '--region-size', 512, '--blur', 'none')),
    'embed': (['features/*/P0[123]*'], ('embed', *THREE)),
    'pretrain 1': (['models', 'features'], ('pretrain', *ALL, *FEW, '--level', 1)),
    'pretrain 2': (['models', 'features'], ('pretrain', *ALL, *FEW)),
    'train': (['models/slide'], ('train', *ALL, *ENCODER, '--folds', 2, '--epochs', 2)),
    'evaluate': (['evaluation', 'evaluation.csv'], ('evaluate', *ALL, '--no-baselines')),
    'attend': (['maps'], ('attend', *THREE, *ENCODER)),
    'report': (['index.html'], ('report', *ALL)),
}


def kills():
    first, last = map(int, os.environ.get('FAULTS_KILLS', '0:20').split(':'))
    return range(first, last)


def prepared(finished, name):
    "The run without what a command makes, and without what it says of it"
    folder, (gone, args) = fresh(finished), KILLED[name]
    run, verb = folder/'run', name.split()[0]
    for p in [p for pattern in gone for p in run.glob(pattern)]: shutil.rmtree(p) if p.is_dir() else p.unlink()
    rows = (run/'cohort'/'manifest.csv').read_text().splitlines()
    (run/'cohort'/'three.csv').write_text('\n'.join(rows[:4])+'\n')
    rows = list(csv.reader((run/'log.csv').open(newline='')))
    other = [r for r in rows if r[1].split('/')[0]!=verb]
    with (run/'log.csv').open('w', newline='') as f: csv.writer(f).writerows(other)
    return folder, args


WHEN = re.compile(rb'\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?Z?)?|\d+ (seconds|minutes)|\d+(\.\d+)? (s|min)\b'
                  rb'|\([0-9a-f]{10}\+?\)')   # the last: the commit


def content(folder):
    "path → what is in the file, without when it was made"
    found = {}
    for p in sorted((folder/'run').rglob('*')):
        if not p.is_file() or p.name.startswith('.lock-') or p.name=='commands.json': continue
        data, name = p.read_bytes(), p.relative_to(folder/'run').as_posix()
        if name=='log.csv': data = sorted(r[:4] for r in csv.reader(p.open(newline='')) if r[3:4])
        elif name=='run.json': data = {k: v.get('params') for k,v in json.loads(data).items()}
        elif p.suffix in ('.html', '.json'): data = hashlib.sha256(WHEN.sub(b'', data)).hexdigest()
        else: data = hashlib.sha256(data).hexdigest()
        found[name] = data
    return found


@pytest.fixture(scope='session')
def undisturbed(hipt, finished):
    "name → what a command makes when nothing happens, its steps and the seconds that it takes"
    known = {}

    def of(name):
        if name not in known:
            folder, args = prepared(finished, name)
            steps, began = finished/'steps', time.time()
            rc, text = hipt(folder, *args, step=10**9, steps=str(steps), seconds=600)
            assert rc==0, text
            known[name] = content(folder), int(steps.read_text()), time.time()-began
        return known[name]
    return of


def killed_and_resumed(hipt, finished, undisturbed, name, seed):
    whole, steps, seconds = undisturbed(name)
    rng, (folder, args) = random.Random(f'{name} {seed}'), prepared(finished, name)
    if seed % 3==2: how = dict(seconds=rng.uniform(.1, 1)*seconds)
    else: how = dict(step=rng.randrange(steps), steps=str(finished/'steps'), seconds=600)
    ended, _ = hipt(folder, *args, **how)
    assert ended in (-9, 'hang', 0), ended
    rc, text = hipt(folder, *args, seconds=600)
    keep(f'killed at {how}', args, ended, '', text)
    assert rc==0, f'{how}\n{text[-3000:]}'
    now = content(folder)
    assert sorted(now)==sorted(whole), f'{how}: {set(now) ^ set(whole)}'
    other = {k: (whole[k], now[k]) for k in whole if now[k]!=whole[k]}
    assert not other, f'{how}: {other}'


@pytest.mark.faults
@pytest.mark.parametrize('seed', kills())
@pytest.mark.parametrize('name', KILLED)
def test_killed_and_resumed(hipt, finished, undisturbed, name, seed):
    killed_and_resumed(hipt, finished, undisturbed, name, seed)
