"What every test needs: one thread a process, no window, and the real images where there are any"
import os
import sys
from pathlib import Path

# before anything imports numpy or torch; two test processes share the cores
for k in ('OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'OPENBLAS_NUM_THREADS'): os.environ.setdefault(k, '1')
os.environ.setdefault('MPLBACKEND', 'Agg')

import pytest

root = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(root))


@pytest.fixture(scope='session')
def hipt_data():
    "Folder of real images; tests that use it are skipped where it is missing"
    folder = os.environ.get('HIPT_DATA')
    if not folder or not Path(folder).is_dir():
        pytest.skip('set HIPT_DATA to a folder of real slides (see CONTRIBUTING.md)')
    return Path(folder)
