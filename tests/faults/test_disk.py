"""Disks that are full or read-only, files that are locked or not to be read, clocks that are set back: one line,
nothing lost, and the next call goes on"""
import fcntl
import os
import shutil
import subprocess
import sys

import pytest

from test_faults import ENCODER, REPORT, RETILE, fault_of, log_of
from test_killed import content
from whole import ALL, EMBED, ONE, fresh

pytestmark = [pytest.mark.faults, pytest.mark.skipif(sys.platform!='linux', reason='uses what Linux has')]

WRITES = {  # name: (what is taken away first, command)
    'tile': (['tiles/P01-1.h5'], RETILE),
    'embed': (['features/hipt-tiny/P01-1.h5'], EMBED),
    'pretrain': ([], ('pretrain', *ALL, '--preset', 'hipt-tiny-3', '--level', 1, '--recipe', 'small', '--samples1', 8,
                      '--batch-size', 4)),
    'train': ([], ('train', *ALL, *ENCODER, '--folds', 2, '--epochs', 1, '--name', 'x')),
    'attend': (['maps/hipt-tiny/P01-1.h5'], ('attend', *ONE, *ENCODER)),
    'export': ([], ('export', *ALL, '--to', 'slide2vec', '--features', *ENCODER)),
    'view': ([], ('view', 'run', '--static', 'pages', *ENCODER)),
    'report': ([], REPORT),
}


def ready(finished, name):
    gone, args = WRITES[name]
    folder = fresh(finished)
    for p in gone: (folder/'run'/p).unlink()
    return folder, args


def one_line(rc, text, *wanted):
    assert rc==1 and not fault_of(rc, text, text), text[-3000:]
    assert any(w in text for w in wanted), text[-3000:]


@pytest.mark.parametrize('name', WRITES)
def test_a_file_that_becomes_too_large(hipt, finished, name):
    "What a full disk does, by a limit of the system: one line, nothing half written, and the next call goes on"
    folder, args = ready(finished, name)
    rc, text = hipt(folder, *args, largest=3000)
    one_line(rc, text, 'cannot be written')
    assert not [p for p in folder.rglob('.tmp-*')]
    rc, text = hipt(folder, *args)
    assert rc==0, text[-3000:]


@pytest.fixture
def small_disk(finished):
    "A disk of 64 MB where runs are worked on"
    work = finished/'work'
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    made = subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=64m', 'tmpfs', str(work)], capture_output=True)
    if made.returncode: pytest.skip('only root can make a disk')
    yield work
    subprocess.run(['umount', '-l', str(work)], check=True)


@pytest.mark.parametrize('name', WRITES)
def test_a_full_disk(hipt, finished, small_disk, name):
    folder, args = ready(finished, name)
    with (small_disk/'filler').open('wb') as f:
        try:
            while True: f.write(bytes(2**16))
        except OSError: pass
    rc, text = hipt(folder, *args)
    one_line(rc, text, 'no space left')
    (small_disk/'filler').unlink()
    assert not [p for p in folder.rglob('.tmp-*')]
    rc, text = hipt(folder, *args)
    assert rc==0, text[-3000:]


def forbid(folder, mode):
    for p in [folder, *folder.rglob('*')]:
        if p.is_dir(): p.chmod(mode)


@pytest.mark.parametrize('name', WRITES)
def test_a_folder_that_is_read_only(hipt, finished, name):
    folder, args = ready(finished, name)
    before = content(folder)
    forbid(folder/'run', 0o555)
    try: rc, text = hipt(folder, *args, plain=True)
    finally: forbid(folder/'run', 0o755)
    if name=='view': assert rc==0, text[-3000:]   # its pages are elsewhere
    else: one_line(rc, text, 'cannot write', 'cannot be written', 'permission denied')
    assert content(folder)==before


READ = {  # file that must not be read, what is taken away first, command
    'cohort/P01-1.tif': (['tiles/P01-1.h5', 'features/hipt-tiny/P01-1.h5'], RETILE),
    'tiles/P01-1.h5': (['features/hipt-tiny/P01-1.h5'], EMBED),
    'features/hipt-tiny/P01-1.h5': ([], ('knn', *ALL, *ENCODER, '--folds', 2)),
    'models/hipt-tiny/model.safetensors': (['features/hipt-tiny/P01-1.h5'], EMBED),
    'models/hipt-tiny/config.json': (['features/hipt-tiny/P01-1.h5'], EMBED),
    'models/slide/hipt-tiny/fold0/model.safetensors': ([], ('predict', *ALL, *ENCODER)),
    'models/slide/hipt-tiny/predictions.csv': ([], ('evaluate', *ALL, '--no-baselines')),
    'maps/hipt-tiny/P01-1.h5': ([], ('attend', *ONE, *ENCODER)),
    'run.json': (['features/hipt-tiny/P01-1.h5'], EMBED),
    'manifest.csv': ([], ('view', 'run', '--static', 'pages', *ENCODER)),
    'evaluation.csv': ([], REPORT),
}


@pytest.mark.parametrize('file', READ)
def test_a_file_that_must_not_be_read(hipt, finished, file):
    "Its owner is asked for access; it is not called damaged, and never made anew"
    gone, args = READ[file]
    folder = fresh(finished)
    for p in gone: (folder/'run'/p).unlink()
    path = folder/'run'/file
    data = path.read_bytes()
    path.unlink()   # it may be a link
    path.write_bytes(data)
    path.chmod(0)
    rc, text = hipt(folder, *args, plain=True)
    path.chmod(0o644)
    said = text+log_of(folder)
    assert rc==int(not file.startswith('cohort')), text[-3000:]   # the other slides go on
    assert not fault_of(rc, text, said), said[-3000:]
    assert 'ermission denied' in said, text[-3000:]
    assert 'damaged' not in text and path.read_bytes()==data


@pytest.mark.parametrize('file', ['tiles/P01-1.h5', 'features/hipt-tiny/P01-1.h5', 'maps/hipt-tiny/P01-1.h5'])
def test_a_file_that_is_locked(hipt, finished, file):
    args = dict(tiles=RETILE, features=EMBED, maps=('attend', *ONE, *ENCODER))[file.split('/')[0]]
    folder = fresh(finished)
    path = folder/'run'/file
    with path.open('rb+') as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        before = path.stat()
        rc, text = hipt(folder, *args)
    assert not fault_of(rc, text, text) and 'another program has locked it' in text, text[-3000:]
    assert (path.stat().st_ino, path.stat().st_mtime)==(before.st_ino, before.st_mtime)


def test_a_clock_that_is_set_back(hipt, finished):
    "Files and rows of the log are ahead of the clock: nothing is made again, what is missing is, and the log says so"
    folder = fresh(finished)
    whole, log = content(folder), folder/'run'/'log.csv'
    rows = log.read_text().replace('2026-', '2999-')
    log.write_text(rows.replace('P01-1,embed/hipt-tiny,done,', 'P01-1,embed/hipt-tiny,failed,no memory'))
    (folder/'run'/'features'/'hipt-tiny'/'P01-1.h5').unlink()
    for p in folder.rglob('*'): os.utime(p, (4e9, 4e9))
    made = {p: p.stat().st_ino for p in folder.rglob('*.h5')}
    for args in (RETILE, ('embed', *ALL)):
        rc, text = hipt(folder, *args)
        assert rc==0 and 'refused' not in text, text[-3000:]
    assert {p: p.stat().st_ino for p in made}==made
    now = content(folder)
    assert {k for k in whole if whole[k]!=now.get(k)} <= {'tiles.csv'}
