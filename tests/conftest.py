"What every test needs: one thread a process, no window, and the real images where there are any"
import os
import shutil
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
