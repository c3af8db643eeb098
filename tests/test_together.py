"""Any number of processes in one run folder: nothing is refused, lost or torn"""
import json
import multiprocessing
import sys

import pandas as pd
import pytest

from hipt_nb.cohort import read_manifest
from hipt_nb.core import HIPTError, read_json
from hipt_nb.run import Run, each_slide

ctx = multiprocessing.get_context('fork' if sys.platform=='linux' else 'spawn')
ROUNDS, SLIDES = 5, 3


def job(k, root, slides, errors, start):
    "What a share of a cohort does to the run folder, many times"
    try:
        start.wait()
        for r in range(ROUNDS):
            run = Run(root)
            run.record(f'step/{k}-{r}', dict(k=k), f'nothing/{k}')
            mine = read_manifest([slides/f'{k}-{i}.svs' for i in range(SLIDES)])
            run.keep_manifest(mine)
            each_slide(mine, lambda row: 'done', run, f'tile/{r}')
            run.add_rows('tiles', pd.DataFrame(dict(slide_id=mine.slide_id, regions=k, round=r)))
            assert {(s, f'tile/{r}') for s in mine.slide_id} <= set(run.read_log())
    except BaseException as e: errors.put(f'{type(e).__name__}: {e}')


def together(n, target, *args):
    "Run a function in `n` processes that begin at the same time; what went wrong"
    errors, start = ctx.Queue(), ctx.Barrier(n)
    processes = [ctx.Process(target=target, args=(k, *args, errors, start)) for k in range(n)]
    for p in processes: p.start()
    for p in processes: p.join(100)
    assert not any(p.exitcode for p in processes)
    return [errors.get() for _ in range(errors.qsize())]


@pytest.mark.parametrize('n', (2, 8))
def test_tables_and_records_are_complete(tmp_path, n):
    slides, root = tmp_path/'slides', tmp_path/'run'
    slides.mkdir()
    for k in range(n):
        for i in range(SLIDES): (slides/f'{k}-{i}.svs').touch()
    assert together(n, job, root, slides) == []
    ids = {f'{k}-{i}' for k in range(n) for i in range(SLIDES)}
    run = Run(root)
    assert set(run.records()) == {f'step/{k}-{r}' for k in range(n) for r in range(ROUNDS)}
    assert set(run.manifest().slide_id) == ids
    log = pd.read_csv(run.table('log'), keep_default_na=False)
    assert len(log) == len(ids)*ROUNDS and set(log.status) == {'done'}
    tiles = pd.read_csv(run.table('tiles'))
    assert set(tiles.slide_id) == ids and len(tiles) == len(ids) and set(tiles['round']) == {ROUNDS-1}
    assert {p.name for p in root.iterdir()} == {'run.json', 'log.csv', 'manifest.csv', 'tiles.csv'}  # no lock, no part


def decide(k, root, errors, start):
    start.wait()
    precision = ('float32', 'bfloat16')[k%2]
    got = Run(root).record('embed/a', dict(precision=precision), 'features/a', dict(batch_size=k), auto=['precision'])
    errors.put(got['precision'])


def test_automatic_precision_is_decided_once(tmp_path):
    Run(tmp_path/'run')
    found = together(8, decide, tmp_path/'run')
    assert len(found) == 8 and len(set(found)) == 1
    assert read_json(tmp_path/'run'/'run.json')['embed/a']['params']['precision'] == found[0]


def settle(k, out, errors, start):
    from hipt_nb.finetune import _settle
    start.wait()
    try: _settle(out, dict(seed=k, made_by={}))
    except HIPTError as e: errors.put(str(e))


def test_two_trainings_of_one_name(tmp_path):
    "One begins, and the other is refused if its settings differ"
    import hipt_nb.finetune  # noqa: F401  once, before the processes fork
    errors = together(2, settle, tmp_path/'model')
    assert len(errors) == 1 and 'seed' in errors[0]


def test_a_lock_that_a_killed_process_left(tmp_path):
    import os
    def die():
        from hipt_nb.core import locked
        with locked(tmp_path/'run'/'run.json'): os._exit(0)
    Run(tmp_path/'run')
    p = ctx.Process(target=die)
    p.start()
    p.join()
    assert (tmp_path/'run'/'.lock-run.json').exists()
    Run(tmp_path/'run').record('tile', {}, 'tiles')
    assert 'tile' in json.loads((tmp_path/'run'/'run.json').read_text())
