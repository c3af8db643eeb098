"What every test needs: one thread a process, no window, and the real images where there are any"
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
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


@pytest.fixture(scope='module')
def browser():
    "Chromium, driven by Playwright"
    missing = "Playwright is not installed: pip install playwright (it is in the extra 'dev')"
    sync = pytest.importorskip('playwright.sync_api', reason=missing)
    chromium = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
    if chromium is None: pytest.skip('Chromium is not installed: apt-get install chromium')
    flags = '--no-sandbox --disable-background-networking --disable-component-update --disable-sync'.split()
    with sync.sync_playwright() as p:
        b = p.chromium.launch(executable_path=chromium, args=flags)
        yield b
        b.close()


@pytest.fixture(scope='session')
def accessible():
    """A function that has axe-core look at a Playwright page, and fails where it finds something serious

    axe-core stands beside the tests, so that nothing is fetched; it is run by the browser's debugger, which no content
    security policy of a page stops."""
    script = (root/'tests'/'vendored'/'axe.min.js').read_text('utf-8')
    def check(page, rules=('wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'best-practice')):
        page.evaluate(f'{script}\n;0')
        found = page.evaluate("rules => axe.run(document, {runOnly: rules}).then(r => r.violations)", list(rules))
        bad = [f"{v['id']}: {v['help']}: {n['html'][:200]}" for v in found if v['impact'] in ('serious', 'critical')
               for n in v['nodes']]
        assert not bad, '\n'.join(bad)
        return found
    return check


SLURM_CONF = """ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
CredType=cred/none
CryptoType=crypto/none
SlurmctldPort={port}
SlurmdPort={port2}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=4000 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP OverSubscribe=YES
"""


def _free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def _nodes(): return subprocess.run(['sinfo', '-h', '-o', '%T'], capture_output=True, text=True, timeout=60).stdout


@pytest.fixture(scope='session')
def slurm(tmp_path_factory):
    """A Slurm of one node, started for the tests with ports and a configuration of its own

    A cluster that this machine may belong to gets no jobs."""
    missing = [p for p in ('slurmctld', 'slurmd', 'sbatch') if not shutil.which(p)]
    if missing: pytest.skip(f'no Slurm can be started here (no {missing[0]}): apt-get install slurm-wlm')
    pytest.importorskip('submitit', reason="needs submitit: pip install 'hipt_nb[cluster]'")
    import getpass
    folder, before = tmp_path_factory.mktemp('slurm'), os.environ.get('SLURM_CONF')
    for name in ('state', 'spool'): (folder/name).mkdir()
    host = socket.gethostname().split('.')[0]
    (folder/'slurm.conf').write_text(SLURM_CONF.format(
        host=host, user=getpass.getuser(), folder=folder, port=_free_port(), port2=_free_port(), cpus=os.cpu_count()))
    os.environ['SLURM_CONF'] = str(folder/'slurm.conf')
    log = open(folder/'log.txt', 'ab')
    daemons = [subprocess.Popen([p, '-D'], stdout=log, stderr=log) for p in ('slurmctld', 'slurmd')]
    try:
        for _ in range(60):
            if 'idle' in _nodes(): break
            time.sleep(.5)
        else:
            said = (folder/'log.txt').read_text()[-300:]
            pytest.skip(f'a Slurm was started, and its node does not come up: {said}')
        yield
    finally:
        for p in daemons: p.send_signal(signal.SIGTERM)
        for p in daemons: p.wait(30)
        if before is None: del os.environ['SLURM_CONF']
        else: os.environ['SLURM_CONF'] = before
