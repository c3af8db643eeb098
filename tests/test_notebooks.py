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


@pytest.mark.parametrize('path', notebooks, ids=lambda p: p.stem)
def test_notebook(path):
    env = {**os.environ, 'MPLBACKEND': 'module://matplotlib_inline.backend_inline'}
    res = subprocess.run([sys.executable, '-c', run, str(path), str(root)], cwd=root, env=env, capture_output=True, text=True, timeout=600)
    assert res.returncode == 0, f'{path.name}\n{res.stdout[-2000:]}\n{res.stderr[-6000:]}'
