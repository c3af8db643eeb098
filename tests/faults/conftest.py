"What tests of broken files and of killed commands share: a server that runs commands, and a whole run made by them"
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

here = Path(__file__).resolve().parent
root = here.parents[1]
sys.path.insert(0, str(here))
from whole import make_run  # noqa: E402

SECONDS, MEMORY = 90, 6*2**30


@pytest.fixture(scope='session')
def hipt():
    env = {**os.environ, 'PYTHONPATH': str(root), 'OMP_NUM_THREADS': '1', 'MPLBACKEND': 'Agg', 'HF_HUB_OFFLINE': '1'}
    server = subprocess.Popen([sys.executable, str(here/'server.py')], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              text=True, env=env)

    def run(folder, *args, seconds=SECONDS, **more):
        out, err = folder/'stdout', folder/'stderr'
        for o in (out, err): o.write_bytes(b'')
        call = dict(args=[str(a) for a in args], cwd=str(folder), stdout=str(out), stderr=str(err),
                    seconds=seconds, memory=MEMORY, **more)
        print(json.dumps(call), file=server.stdin, flush=True)
        res = json.loads(server.stdout.readline())
        return res['rc'], out.read_text(errors='replace')+err.read_text(errors='replace')

    yield run
    server.stdin.close()
    server.wait()


@pytest.fixture(scope='session')
def finished(tmp_path_factory, hipt):
    """Every step on eight tiny slides, and what other tools would have made of them: `here`, where it was made, and
    where each broken copy takes its place, so that whatever it recorded is still true; `whole`, an untouched copy"""
    kept = Path(os.environ.get('FAULTS_RUN') or tmp_path_factory.mktemp('finished'))
    if not (kept/'whole').exists():
        shutil.rmtree(kept/'work'/'here', ignore_errors=True)
        make_run(kept/'work'/'here', hipt)
        shutil.copytree(kept/'work'/'here', kept/'making')
        os.rename(kept/'making', kept/'whole')
    return kept
