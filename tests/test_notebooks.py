"Every notebook runs from top to bottom, each in a process of its own; cells marked `#| slow` are left to `make book`"
import multiprocessing
import os
import shutil
import sys
from pathlib import Path

import pytest

root = Path(__file__).resolve().parents[1]
notebooks = sorted(p for p in (root/'nbs').rglob('*.ipynb') if not any(o[0] in '._' for o in p.relative_to(root).parts))

# Importing torch and fastai takes longer than many a notebook. On Linux one process does that, and each notebook gets a fork of it,
# which holds nothing of the project and of other notebooks. A process that has looked for a GPU cannot be forked.
forks = sys.platform == 'linux' and not shutil.which('nvidia-smi')
processes = multiprocessing.get_context('forkserver' if forks else 'spawn')
if forks: processes.set_forkserver_preload(['fastai.basics', 'nbdev.test', 'cv2', 'openslide', 'h5py'])


def run(path, log):
    "Run one notebook; what it and its errors say goes to the file `log`"
    out = os.open(log, os.O_WRONLY | os.O_CREAT)
    for o in (1, 2): os.dup2(out, o)
    os.environ['MPLBACKEND'] = 'module://matplotlib_inline.backend_inline'
    import matplotlib
    from nbdev.config import get_config
    from nbdev.test import test_nb
    matplotlib.use(os.environ['MPLBACKEND'])
    os.chdir(root)
    ok, _ = test_nb(path, skip_flags=get_config(root).tst_flags.split(), basepath=root)
    sys.exit(not ok)


@pytest.mark.parametrize('path', notebooks, ids=lambda p: p.stem)
def test_notebook(path, tmp_path):
    p = processes.Process(target=run, args=(path, tmp_path/'log'))
    p.start()
    p.join(600)
    if p.is_alive(): p.kill(); p.join()
    assert p.exitcode == 0, f'{path.name}\n' + (tmp_path/'log').read_text()[-8000:]
