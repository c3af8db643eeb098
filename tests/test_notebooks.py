"Every notebook runs from top to bottom, each in a process of its own; cells marked `#| slow` are left to `make book`"
import os
import subprocess
import sys
from pathlib import Path

import pytest

root = Path(__file__).resolve().parents[1]
notebooks = sorted(p for p in (root/'nbs').rglob('*.ipynb') if not any(o[0] in '._' for o in p.relative_to(root).parts))

run = """
import sys
from nbdev.config import get_config
from nbdev.test import test_nb
cfg = get_config(sys.argv[2])
ok, _ = test_nb(sys.argv[1], skip_flags=cfg.tst_flags.split(), basepath=sys.argv[2])
sys.exit(not ok)
"""

# Importing torch and its like takes longer than many a notebook. One process does it for all, and forks for each that
# is named on its stdin.
# It imports nothing that changes what others do (fastai teaches tensors another comparison), and nothing of the
# project.
forks = """
import os, signal, sys
import cv2, h5py, matplotlib.pyplot, nbdev.test, openslide, pandas, scipy.stats, sklearn.model_selection, torch
for line in sys.stdin:
    if pid := os.fork(): print(os.waitpid(pid, 0)[1], flush=True); continue
    *sys.argv[1:], log = line.rstrip('\\n').split('\\t')
    for fd, file in enumerate((os.devnull, log, log)): os.dup2(os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND), fd)
    signal.alarm(600)
    break
else: sys.exit()
""" + run

start = dict(cwd=root, env={**os.environ, 'MPLBACKEND': 'module://matplotlib_inline.backend_inline'}, text=True)


@pytest.fixture(scope='module')
def parent():
    "The process that forks; None where that is not safe"
    if sys.platform != 'linux': yield; return
    p = subprocess.Popen([sys.executable, '-c', forks], stdin=subprocess.PIPE, stdout=subprocess.PIPE, **start)
    yield p
    p.stdin.close()
    p.wait()


@pytest.mark.parametrize('path', notebooks, ids=lambda p: p.stem)
def test_notebook(path, parent, tmp_path):
    log = tmp_path/'log'
    if parent:
        print(path, root, log, sep='\t', file=parent.stdin, flush=True)
        status = parent.stdout.readline().strip()
    else:
        with log.open('w') as f:
            status = str(subprocess.run([sys.executable, '-c', run, str(path), str(root)], stdout=f, stderr=f,
                                        timeout=600, **start).returncode)
    assert status == '0', f'{path.name}, {status=}\n' + log.read_text()[-8000:]
