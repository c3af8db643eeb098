"Slides far away, copied to a local disk: the same files, whatever breaks on the way, and nothing left behind"
import errno
import os
import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pandas as pd
import pytest

from hipt_nb import stage as module
from hipt_nb.core import HIPTError, logged
from hipt_nb.cohort import read_manifest
from hipt_nb.phantom import make_slide
from hipt_nb.run import Run
from hipt_nb.stage import Stage, file_system, staging
from hipt_nb.tiling import tile_cohort

IDS = ['S0', 'S1', 'S2']


@pytest.fixture(scope='module')
def slides(tmp_path_factory):
    folder = tmp_path_factory.mktemp('slides')
    for i, s in enumerate(IDS): make_slide(folder/f'{s}.tif', label='glandular', seed=i, size=512)
    return folder


def tile(run, manifest, stage, **kw):
    token = staging.set(stage)
    try: return tile_cohort(Run(run), manifest, region_size=512, previews=False, **kw)
    finally: staging.reset(token)


@pytest.fixture(scope='module')
def plain(slides, tmp_path_factory):
    run = tmp_path_factory.mktemp('plain')
    tile(run, read_manifest(slides), None)
    return run


def same(plain, run, ids=IDS):
    there = sorted(p.stem for p in run.glob('tiles/*.h5'))
    return there == ids and all((run/'tiles'/f'{s}.h5').read_bytes() == (plain/'tiles'/f'{s}.h5').read_bytes()
                                for s in ids)


class Server(SimpleHTTPRequestHandler):
    def log_message(self, *_): pass

    def do_GET(self):
        if 'S1' not in self.path: return super().do_GET()
        self.send_response(200)             # a connection that breaks
        self.send_header('Content-Length', '200000')
        self.end_headers()
        self.wfile.write(bytes(1000))


@pytest.fixture(scope='module')
def server(slides):
    s = ThreadingHTTPServer(('127.0.0.1', 0), partial(Server, directory=str(slides)))
    threading.Thread(target=s.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{s.server_port}'
    s.shutdown()


def manifest_of(tmp_path, paths):
    pd.DataFrame(dict(path=paths)).to_csv(tmp_path/'m.csv', index=False)
    return read_manifest(tmp_path/'m.csv')


@pytest.mark.parametrize('workers', [1, 0, 2])
def test_copies_give_the_same_files(slides, plain, tmp_path, workers):
    paths = [f'file://{slides}/S0.tif', *(slides/f'{s}.tif' for s in IDS[1:])]
    counts = tile(tmp_path/'run', manifest_of(tmp_path, paths), stage := Stage(tmp_path/'scratch'), workers=workers)
    assert counts == dict(done=3, skipped=0, failed=0) and same(plain, tmp_path/'run')
    assert [p.name for p in stage.folder.iterdir() if 'lock' not in p.name] == []


def test_a_web_server_and_a_connection_that_breaks(slides, plain, server, tmp_path):
    pytest.importorskip('aiohttp', reason="needs aiohttp: pip install 'hipt_nb[remote]'")
    m, stage = manifest_of(tmp_path, [f'{server}/{s}.tif' for s in [*IDS, 'S3']]), Stage(tmp_path/'scratch')
    with logged() as said: counts = tile(tmp_path/'run', m, stage)
    assert counts == dict(done=2, skipped=0, failed=2) and same(plain, tmp_path/'run', ['S0', 'S2'])
    assert len(said) == 2 and "slide 'S1' cannot be copied" in said[0] and 'S3' in said[1], said
    assert stage.used() == 0 and not [*stage.folder.glob('.hipt-stage*')]
    with logged(): again = tile(tmp_path/'run', m, None)     # what is there needs no copy
    assert again['skipped'] == 2


def test_a_full_disk_costs_the_slide_that_does_not_fit(slides, plain, tmp_path, monkeypatch):
    real, tried = shutil.copyfile, []
    def copyfile(source, target):
        if 'S1' not in str(source): return real(source, target)
        tried.append(1)
        raise OSError(errno.ENOSPC, 'No space left on device', str(target))
    monkeypatch.setattr(module.shutil, 'copyfile', copyfile)
    m = read_manifest(slides)
    with logged() as said: counts = tile(tmp_path/'run', m, Stage(tmp_path/'scratch'))
    assert counts['done'] == 2 and same(plain, tmp_path/'run', ['S0', 'S2'])
    assert len(tried) == 2 and len(said) == 1 and 'is full' in said[0] and str(tmp_path/'scratch') in said[0], said


def test_room_is_shared(slides, plain, tmp_path):
    size = max(os.path.getsize(p) for p in slides.glob('*.tif'))
    tight = Stage(tmp_path/'scratch', 1.05*size/1e9)            # one slide at a time
    assert tile(tmp_path/'run', read_manifest(slides), tight)['done'] == 3 and same(plain, tmp_path/'run')
    assert tile(tmp_path/'two', read_manifest(slides), tight, workers=2)['done'] == 3 and same(plain, tmp_path/'two')
    m = read_manifest(slides)
    with logged() as said: counts = tile(tmp_path/'none', m, Stage(tmp_path/'scratch', 1e-5))
    assert counts['failed'] == 3 and 'more than --stage allows' in said[0]


def test_what_is_refused(slides, tmp_path, monkeypatch):
    with pytest.raises(HIPTError, match='more than 0 GB'): Stage.of(f'{tmp_path}:0')
    (tmp_path/'file').write_text('')
    with pytest.raises(HIPTError, match='cannot be made'): Stage.of(f'{tmp_path}/file/x')
    def missing(*_): raise ImportError('Install s3fs to access S3')
    monkeypatch.setattr('fsspec.core.url_to_fs', missing)
    with pytest.raises(HIPTError, match='pip install s3fs'): file_system('s3://bucket/S1.svs')
    m = manifest_of(tmp_path, ['s3://b/S1.svs', slides/'S0.tif'])
    with logged() as said: tile(tmp_path/'run', m, None)
    assert len(said) == 1 and '--stage DIR' in said[0]
