"""Build the site: prepare the pages, run Sphinx with warnings as errors, finish its HTML, check every page

    python docs/build.py                # everything, into docs/_build/html
    python docs/build.py vit tiling     # only the home page and these, quickly and unchecked, to look at them"""
import os
import shutil
import subprocess
import sys
from pathlib import Path

here = Path(__file__).resolve().parent
site = here/'_build'/'html'


def main(only=()):
    os.chdir(here.parent)
    run = lambda *cmd: subprocess.run([sys.executable, *map(str, cmd)], check=True)
    run(here/'prepare.py', *only)
    shutil.rmtree(site, ignore_errors=True)
    run('-m', 'sphinx', '-W', '--keep-going', '-q', '-E', '-d', here/'_build'/'doctrees', '-c', here, here/'_src', site)
    (site/'.nojekyll').touch()
    run(here/'finish.py', site)
    if not only: run(here/'check.py', site)
    print(f'The site is in {site.relative_to(here.parent)}/index.html')


if __name__ == '__main__':
    try: main(sys.argv[1:])
    except subprocess.CalledProcessError as e: sys.exit(e.returncode)
