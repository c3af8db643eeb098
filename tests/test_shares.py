"A cohort in shares: the same files as from one process, whoever is killed, whatever is broken"
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from hipt_nb.phantom import make_slide
from hipt_nb.run import Run

ROOT = Path(__file__).parents[1]
CODE = 'from hipt_nb.cli import main; main()'
PRODUCTS = ('tiles/*.h5', 'tiles/*.geojson', 'features/*/*.h5', 'maps/*/*.h5', 'export/*.geojson', 'manifest.csv',
            'tiles.csv')


def start(*args, **kw):
    env = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'} | kw.pop('env', {})
    return subprocess.Popen([sys.executable, '-c', CODE, *map(str, args)], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True, env=env, **kw)


def hipt(*args, **kw):
    p = start(*args, **kw)
    out, err = p.communicate(timeout=600)
    return p.returncode, out+err


@pytest.fixture(scope='module')
def slides(tmp_path_factory):
    folder = tmp_path_factory.mktemp('slides')
    for i in range(8): make_slide(folder/f'S{i}.tif', label='glandular', seed=i, size=512+256*(i%3))
    (folder/'broken.tif').write_bytes((folder/'S0.tif').read_bytes()[:3000])
    return folder


TILE, EMBED = ('--region-size', 512), ('--model', 'hipt-tiny:random', '--precision', 'float32')


@pytest.fixture(scope='module')
def alone(slides, tmp_path_factory):
    "The run of one process"
    run = tmp_path_factory.mktemp('alone')/'run'
    assert hipt('tile', slides, '--out', run, *TILE)[0] == 0
    assert hipt('embed', slides, '--out', run, *EMBED)[0] == 0
    return run


def same_files(a, b, patterns=PRODUCTS):
    found = [{p.relative_to(run): p.read_bytes() for o in patterns for p in run.glob(o)} for run in (a, b)]
    assert set(found[0]) == set(found[1])
    assert [k for k in found[0] if found[0][k] != found[1][k]] == []
    return len(found[0])


def test_shares_make_the_files_of_one_process(slides, alone, tmp_path):
    run = tmp_path/'run'
    for verb, options in (('tile', TILE), ('embed', EMBED)):
        jobs = [start(verb, slides, '--out', run, *options, '--shard', f'{i}/3') for i in (1, 2, 3)]
        said = [p.communicate(timeout=600) for p in jobs]
        assert sorted(p.returncode for p in jobs) == [0, 0, 3], said     # one share holds the broken slide
    assert same_files(alone, run) > 20
    log = [pd.read_csv(r/'log.csv').sort_values(['slide_id', 'verb'])[['slide_id', 'verb', 'status']].values.tolist()
           for r in (alone, run)]
    assert log[0] == log[1] and not [*run.glob('.log-*')]
    code, said = hipt('embed', slides, '--out', run, *EMBED, '--shard', '2/3')    # goes on, and finds nothing to do
    assert code in (0, 3) and 'skipped' in said and same_files(alone, run)


@pytest.mark.faults
def test_a_killed_share_is_taken_up_again(slides, alone, tmp_path):
    run = tmp_path/'run'
    hipt('tile', slides, '--out', run, *TILE)
    jobs = [start('embed', slides, '--out', run, *EMBED, '--shard', f'{i}/2') for i in (1, 2)]
    for _ in range(3000):
        if [*run.glob('features/*/*.h5')]: break
        time.sleep(.02)
    jobs[0].send_signal(signal.SIGKILL)
    for p in jobs: p.communicate(timeout=600)
    codes = [hipt('embed', slides, '--out', run, *EMBED, '--shard', f'{i}/2')[0] for i in (1, 2)]
    assert sorted(codes) == [0, 3]
    assert same_files(alone, run)
    done = Run(run).read_log()
    assert {s for (s, v), (status, _) in done.items() if v.startswith('embed/') and status != 'failed'} == {
        f'S{i}' for i in range(8)}


def test_what_a_scheduler_says(slides, tmp_path):
    array = dict(SLURM_ARRAY_TASK_ID='3', SLURM_ARRAY_TASK_MIN='2', SLURM_ARRAY_TASK_COUNT='4')
    code, out = hipt('info', slides, '--json', '--shard', 'auto', env=array)
    assert code in (0, 3)
    by_hand = hipt('info', slides, '--json', '--shard', '1/4')[1]
    ids = [[o['slide_id'] for o in json.loads(text[text.index('['):text.rindex(']')+1])] for text in (out, by_hand)]
    assert len(ids[0]) == 2 and [*map(sorted, ids)][0] == sorted(ids[1])
    assert hipt('info', slides, '--shard', 'auto')[0] == 1
    code, said = hipt('info', slides, '--shard', '5/4')
    assert code == 1 and 'no share 5 of 4' in said
    assert 'holds none of the 9 slides' in hipt('info', slides, '--shard', '60/64')[1]


def test_two_shares_with_different_settings(slides, alone, tmp_path):
    run = tmp_path/'run'
    assert hipt('tile', slides, '--out', run, *TILE, '--shard', '1/2')[0] in (0, 3)
    code, said = hipt('tile', slides, '--out', run, '--region-size', 1024, '--shard', '2/2')
    assert code == 1 and 'region_size: 512 before, 1024 now' in said
    assert hipt('tile', slides, '--out', run, *TILE, '--shard', '2/2')[0] in (0, 3)
    same_files(alone, run, ('tiles/*.h5', 'manifest.csv', 'tiles.csv'))


@pytest.mark.faults
def test_predictions_attention_and_exports_in_shares(slides, alone, tmp_path):

    cohort = tmp_path/'m.csv'
    pd.DataFrame([dict(path=slides/f'S{i}.tif', label='ab'[i%2], patient=f'p{i}') for i in range(8)]
                 + [dict(path=slides/'broken.tif', label='a', patient='b')]).to_csv(cohort, index=False)
    runs = [tmp_path/'one', tmp_path/'many']
    for run in runs: shutil.copytree(alone, run)
    encoder = '--encoder', 'hipt-tiny-random'
    assert hipt('train', cohort, '--out', runs[0], *encoder, '--folds', 2, '--epochs', 1)[0] == 1   # no features
    good = tmp_path/'good.csv'
    pd.read_csv(cohort)[:8].to_csv(good, index=False)
    assert hipt('train', good, '--out', runs[0], *encoder, '--folds', 2, '--epochs', 1)[0] == 0
    shutil.copytree(runs[0]/'models', runs[1]/'models')
    trained = '--trained', 'hipt-tiny-random'
    assert hipt('predict', good, '--out', runs[0], *encoder, *trained)[0] == 0
    codes = [hipt('predict', cohort, '--out', runs[1], *encoder, *trained, '--shard', f'{i}/2')[0] for i in (2, 1)]
    assert sorted(codes) == [0, 3]
    one, many = (pd.read_csv(r/'predictions'/'hipt-tiny-random.csv') for r in runs)
    pd.testing.assert_frame_equal(one, many, rtol=1e-5)
    for verb, options in (('attend', ('--encoder', 'hipt-tiny:random')), ('export', ())):
        assert hipt(verb, cohort, '--out', runs[0], *options)[0] == 0
        for i in (1, 2): assert hipt(verb, cohort, '--out', runs[1], *options, '--shard', f'{i}/2')[0] in (0, 3)
    assert same_files(*runs) > 30
    assert '--truth' in hipt('attend', cohort, '--out', runs[1], '--truth', slides, '--shard', '1/2')[1]


def test_ranks_of_torchrun_embed_disjoint_shares(slides, alone, tmp_path):
    run = tmp_path/'run'
    hipt('tile', slides, '--out', run, *TILE)
    env = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}
    r = subprocess.run([sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2', '-m',
                        'hipt_nb.cli', 'embed', str(slides/'S1.tif'), str(slides/'S2.tif'), str(slides/'S3.tif'),
                        '--out', str(run), *EMBED], capture_output=True, text=True, timeout=600, env=env)
    assert r.returncode == 0, r.stderr[-2000:]
    assert sorted(line.split(': ')[1] for line in r.stdout.splitlines()) == ['1 done', '2 done']
    for p in run.glob('features/*/*.h5'): assert p.read_bytes() == (alone/p.relative_to(run)).read_bytes()


def test_a_process_for_each_device(slides, alone, tmp_path):
    "`--gpus`, with processors in place of GPUs, and more of these than the machine has"
    run = tmp_path/'run'
    shutil.copytree(alone/'tiles', run/'tiles')
    few = [slides/f'S{i}.tif' for i in (1, 2, 3)]
    code, said = hipt('embed', *few, '--out', run, *EMBED, '--gpus', 2, '--device', 'cpu')
    assert code == 0 and said.count('done') == 2, said
    for p in run.glob('features/*/*.h5'): assert p.read_bytes() == (alone/p.relative_to(run)).read_bytes()
    assert len([*run.glob('features/*/*.h5')]) == 3
    code, said = hipt('embed', *few, '--out', run, *EMBED, '--gpus', 99)
    assert code == 1 and 'give fewer' in said and 'Traceback' not in said, said


def test_a_slide_that_vanished(slides, tmp_path):
    "Between submitting and running: it alone fails, and the shares stay what they were"
    mine, run = tmp_path/'slides', tmp_path/'run'
    mine.mkdir()
    for i in range(4): shutil.copy(slides/f'S{i}.tif', mine/f'S{i}.tif')
    pd.DataFrame(dict(path=[f'slides/S{i}.tif' for i in range(4)])).to_csv(tmp_path/'m.csv', index=False)
    assert hipt('tile', tmp_path/'m.csv', '--out', run, *TILE, '--shard', '1/2')[0] == 0
    done = {p.stem for p in run.glob('tiles/*.h5')}
    gone = sorted({'S0', 'S1', 'S2', 'S3'}-done)[0]
    (mine/f'{gone}.tif').unlink()
    code, said = hipt('tile', tmp_path/'m.csv', '--out', run, *TILE, '--shard', '2/2')
    assert code == 3 and f"{gone}.tif' does not exist" in said and len(done) == 2, said
    assert len([*run.glob('tiles/*.h5')]) == 3
