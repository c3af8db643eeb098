"What `hipt status` says of a run while others work in it, after one was killed, and when files are out of date"
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from hipt_nb.phantom import make_slide
from hipt_nb.run import Run

CODE = 'from hipt_nb.cli import main; main()'


def hipt(*args, **kw):
    return subprocess.run([sys.executable, '-c', CODE, *map(str, args)], capture_output=True, text=True, timeout=300,
                          **kw)


def steps(run):
    r = hipt('status', run, '--json')
    assert r.returncode == 0, r.stderr
    return {s['name']: s for s in json.loads(r.stdout)}


@pytest.fixture(scope='module')
def slides(tmp_path_factory):
    folder = tmp_path_factory.mktemp('slides')
    for i in range(4): make_slide(folder/f'S{i}.tif', label='glandular', seed=i, size=512)
    (folder/'damaged.tif').write_bytes((folder/'S0.tif').read_bytes()[:3000])
    return folder


def test_a_run_from_the_first_command_to_the_last(slides, tmp_path):
    Run(tmp_path/'run')
    assert 'nothing has run' in hipt('status', tmp_path/'run').stdout
    assert hipt('status', tmp_path/'none').returncode == 1
    assert hipt('tile', slides, '--out', 'run', '--region-size', 512, cwd=tmp_path).returncode == 0
    assert hipt('embed', slides/'S1.tif', slides/'S2.tif', '--out', 'run', '--model', 'hipt-tiny:random',
                cwd=tmp_path).returncode == 0
    found = steps(tmp_path/'run')
    tile, embed = found['tile'], found['embed/hipt-tiny-random']
    assert (tile['total'], tile['done'], tile['left'], [*tile['failed']]) == (5, 4, 1, ['damaged'])
    assert 'damaged' in tile['failed']['damaged'] and tile['per_hour'] > 0
    assert (embed['total'], embed['done'], embed['left']) == (2, 2, 0)  # those that it was asked for

    # the command that goes on does so
    (slides/'damaged.tif').write_bytes((slides/'S0.tif').read_bytes())
    seen_from = os.path.relpath(slides, tmp_path)
    assert tile['command'] == f'cd {tmp_path} && hipt tile {seen_from} --out run --region-size 512'
    typed = tile['command'].replace('hipt ', f'{sys.executable} -c "{CODE}" ', 1)
    subprocess.run(typed, shell=True, check=True, capture_output=True, timeout=300)
    assert steps(tmp_path/'run')['tile']['left'] == 0


def test_a_process_at_work_and_one_that_was_killed(slides, tmp_path):
    run, script = tmp_path/'run', '''
import sys, time, pandas as pd
from hipt_nb.run import Run, each_slide
rows = pd.DataFrame(dict(slide_id=[*'abc']))
each_slide(rows, lambda row: row.slide_id=='a' and 'done' or time.sleep(600), Run(sys.argv[1]), 'tile')
'''
    assert hipt('tile', slides/'S0.tif', '--out', run, '--region-size', 512).returncode == 0
    p = subprocess.Popen([sys.executable, '-c', script, str(run)])
    try:
        for _ in range(300):
            if (now := [w for w in Run(run).workers() if w['done']]): break
            time.sleep(.1)
        assert [(w['pid'], w['slides'], w['done'], w['alive']) for w in now] == [(p.pid, 3, 1, True)]
        assert steps(run)['tile']['running'][0]['pid'] == p.pid
    finally: p.send_signal(signal.SIGKILL)
    p.wait()
    tile = steps(run)['tile']
    assert tile['running'] == [] and [w['pid'] for w in tile['ended']] == [p.pid]
    assert f'process {p.pid}' in hipt('status', run).stdout


def test_what_is_out_of_date(slides, tmp_path):
    import shutil
    mine = tmp_path/'slides'
    mine.mkdir()
    for s in ('S1', 'S2'): shutil.copy(slides/f'{s}.tif', mine/f'{s}.tif')
    hipt('tile', mine, '--out', tmp_path/'run', '--region-size', 512)
    hipt('embed', mine, '--out', tmp_path/'run', '--model', 'hipt-tiny:random')
    shutil.copy(slides/'S3.tif', mine/'S1.tif')
    assert [*steps(tmp_path/'run')['tile']['outdated']] == ['S1']
    assert hipt('tile', mine, '--out', tmp_path/'run', '--region-size', 512, '--redo').returncode == 0
    found = steps(tmp_path/'run')
    assert found['tile']['outdated'] == {} and [*found['embed/hipt-tiny-random']['outdated']] == ['S1']
    assert '--redo' in hipt('status', tmp_path/'run').stdout.splitlines()[-1]
    assert os.listdir(tmp_path/'run').count('commands.json') == 1
