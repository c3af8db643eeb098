"Shares on a cluster of Dask: the files of one process, exit codes, and lines that help"
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from hipt_nb.cluster import Dask
from hipt_nb.cohort import read_manifest
from hipt_nb.core import HIPTError
from hipt_nb.phantom import make_slide
from hipt_nb.run import Run
from hipt_nb.tiling import tile_cohort

distributed = pytest.importorskip('distributed', reason="needs Dask: pip install 'hipt_nb[dask]'")
ROOT = Path(__file__).parents[1]


def hipt(*args):
    env = {**os.environ, 'PYTHONPATH': os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')])}
    r = subprocess.run([sys.executable, '-m', 'hipt_nb.cli', *map(str, args)], capture_output=True, text=True,
                       timeout=1000, env=env)
    return r.returncode, r.stdout+r.stderr


@pytest.fixture(scope='module')
def cluster():
    "Three workers, as threads of this process, which start at once; what they run are processes in any case"
    with distributed.LocalCluster(n_workers=3, threads_per_worker=1, processes=False, protocol='tcp://',
                                  dashboard_address=None) as c:
        yield '--dask', c.scheduler_address


@pytest.fixture(scope='module')
def slides(tmp_path_factory):
    folder = tmp_path_factory.mktemp('slides')
    for i in range(4): make_slide(folder/f'S{i}.tif', label='glandular', seed=i, size=512)
    return folder


def test_shares_on_three_workers(cluster, slides, tmp_path):
    for p in slides.glob('*.tif'): (tmp_path/p.name).symlink_to(p)
    (tmp_path/'broken.tif').write_bytes((slides/'S0.tif').read_bytes()[:3000])
    one, many = tmp_path/'one', tmp_path/'many'
    tile_cohort(Run(one), read_manifest(tmp_path), region_size=512, previews=False)
    code, said = hipt('tile', tmp_path, '--region-size', 512, '--out', many, *cluster)
    assert code == 3 and '3 shares on 3 workers' in said and 'exit code 3' in said, said
    for p in one.glob('tiles/*.h5'): assert p.read_bytes() == (many/p.relative_to(one)).read_bytes()
    assert len([*many.glob('tiles/*.h5')]) == 4
    code, said = hipt('tile', tmp_path, '--region-size', 1024, '--out', many, *cluster, '--jobs', 2)
    assert code == 1 and 'region_size: 512 before, 1024 now' in said, said


def test_no_scheduler():
    with pytest.raises(HIPTError, match='no scheduler of Dask answers'): Dask('tcp://127.0.0.1:1', seconds=.5)


@pytest.mark.faults
def test_all_that_take_shares(cluster, slides, tmp_path):
    "embed, predict and attend make what one process makes"
    manifest, e = tmp_path/'m.csv', ('--encoder', 'hipt-tiny-random')
    rows = dict(path=sorted(slides.glob('*.tif')), label=[*'abab'], patient=[*'pqrs'])
    pd.DataFrame(rows).to_csv(manifest, index=False)
    one, many = tmp_path/'one', tmp_path/'many'
    assert hipt('tile', manifest, '--region-size', 512, '--out', one)[0] == 0
    shutil.copytree(one/'tiles', many/'tiles')
    embed = 'embed', manifest, '--model', 'hipt-tiny:random', '--precision', 'float32'
    assert hipt(*embed, '--out', one)[0] == 0
    code, said = hipt(*embed, '--out', many, *cluster)
    assert code == 0, said
    assert hipt('train', manifest, '--out', one, *e, '--folds', 2, '--epochs', 1)[0] == 0
    shutil.copytree(one/'models', many/'models')
    for run, how in ((one, ()), (many, cluster)):
        for verb in ('predict', 'attend'):
            code, said = hipt(verb, manifest, '--out', run, *e, *how)
            assert code == 0, said
    a, b = (pd.read_csv(run/'predictions'/'hipt-tiny-random.csv') for run in (one, many))
    pd.testing.assert_frame_equal(a, b, rtol=1e-5)
    for pattern in ('features/*/*.h5', 'maps/*/*.h5'):
        files = [*one.glob(pattern)]
        assert len(files) == 4
        for p in files: assert p.read_bytes() == (many/p.relative_to(one)).read_bytes(), p
