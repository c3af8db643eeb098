"Make the book: export all notebooks, then run each in order, slow cells too, storing its outputs, and clean it"
import os
import subprocess
import sys
from pathlib import Path

os.environ.setdefault('OMP_NUM_THREADS', '1')

root = Path(__file__).resolve().parents[1]


def notebooks(names=()):
    "All notebooks in reading order: the numbered ones, then the rest; or those named"
    if names: return [Path(o).resolve() for o in names]
    found = [o for o in (root/'nbs').rglob('*.ipynb') if not any(p[0] in '._' for p in o.relative_to(root/'nbs').parts)]
    return sorted(found, key=lambda o: (len(o.relative_to(root/'nbs').parts), not o.name[0].isdigit(), o.name))


def run(path):
    "Run one notebook in this process, store its outputs and clean it; seconds, or None if it failed"
    from nbdev.clean import nbdev_clean
    from nbdev.test import test_nb
    path = path.resolve()
    ok, seconds = test_nb(path, save=True, basepath=str(root))
    nbdev_clean(str(path))
    return seconds if ok else None


def main(names):
    os.chdir(root)
    from nbdev.doclinks import nbdev_export
    nbdev_export.__wrapped__() if hasattr(nbdev_export, '__wrapped__') else nbdev_export()
    for path in notebooks(names):
        # each in a process of its own, so that none leans on what another imported
        res = subprocess.run([sys.executable, __file__, '--one', str(path)])
        if res.returncode: sys.exit(f'{path.name} failed')


if __name__ == '__main__':
    if sys.argv[1:2] != ['--one']: main(sys.argv[1:])
    else:
        seconds = run(Path(sys.argv[2]))
        if seconds is None: sys.exit(1)
        print(f'{Path(sys.argv[2]).name:24} {seconds:6.1f} s', flush=True)
