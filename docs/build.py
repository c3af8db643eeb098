"Build the site: prepare the pages, run Sphinx with warnings as errors, check every link"
import os
import shutil
import subprocess
import sys
from pathlib import Path

here = Path(__file__).resolve().parent
site = here/'_build'/'html'


def main():
    os.chdir(here.parent)
    run = lambda *cmd: subprocess.run([sys.executable, *map(str, cmd)], check=True)
    run(here/'prepare.py')
    shutil.rmtree(site, ignore_errors=True)
    run('-m', 'sphinx', '-W', '--keep-going', '-q', '-E', '-d', here/'_build'/'doctrees', '-c', here, here/'_src', site)
    (site/'.nojekyll').touch()
    run(here/'check.py', site)
    print(f'The site is in {site.relative_to(here.parent)}/index.html')


if __name__ == '__main__':
    try: main()
    except subprocess.CalledProcessError as e: sys.exit(e.returncode)
