"Every public name of 0.0.1 still works, or the changelog says what became of it"
import importlib
import json
import re
import warnings
from pathlib import Path

import pytest

root = Path(__file__).resolve().parents[1]
names = json.loads((root/'tests'/'golden'/'names-v0.json').read_text('utf-8'))


@pytest.mark.parametrize('module', names)
def test_old_names(module):
    changes = (root/'CHANGELOG.md').read_text('utf-8').split('\n## ')[1]
    told = set(re.findall(r'\w+', ' '.join(re.findall(r'`([^`]*)`', changes))))
    now = importlib.import_module(f'hipt_nb.{module}')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', DeprecationWarning)
        gone = [n for n in names[module] if getattr(now, n, None) is None]
    assert set(gone) <= told, f'neither work nor are in the changelog: {sorted(set(gone)-told)}'
