"Shares on a cluster of Dask: the files of one process, exit codes, and lines that help"
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hipt_nb.phantom import make_slide

distributed = pytest.importorskip('distributed', reason="needs Dask: pip install 'hipt_nb[dask]'")
ROOT = Path(__file__).parents[1]


def hipt(*args):
    env = {**os.environ, 'PYTHONPATH': os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')])}
    r = subprocess.run([sys.executable, '-m', 'hipt_nb.cli', *map(str, args)], capture_output=True, text=True,
                       timeout=300, env=env)
    return r.returncode, r.stdout+r.stderr


def test_shares_on_three_workers(tmp_path):
    for i in range(5): make_slide(tmp_path/'slides'/f'S{i}.tif', label='glandular', seed=i, size=512)
    (tmp_path/'slides'/'broken.tif').write_bytes((tmp_path/'slides'/'S0.tif').read_bytes()[:3000])
    one, many = tmp_path/'one', tmp_path/'many'
    tile = 'tile', tmp_path/'slides', '--region-size', 512
    assert hipt(*tile, '--out', one)[0] == 0
    with distributed.LocalCluster(n_workers=3, threads_per_worker=1, dashboard_address=None) as cluster:
        dask = '--dask', cluster.scheduler_address
        code, said = hipt(*tile, '--out', many, *dask)
        assert code == 3 and '3 shares on 3 workers' in said and 'exit code 3' in said, said
        for p in one.glob('tiles/*.h5'): assert p.read_bytes() == (many/p.relative_to(one)).read_bytes()
        assert len([*many.glob('tiles/*.h5')]) == 5
        code, said = hipt('tile', tmp_path/'slides', '--region-size', 1024, '--out', many, *dask, '--jobs', 2)
        assert code == 1 and 'region_size: 512 before, 1024 now' in said, said
    code, said = hipt(*tile, '--out', many, '--dask', 'tcp://127.0.0.1:1')
    assert code == 1 and 'no scheduler of Dask answers' in said and 'Traceback' not in said, said
