"The viewer in a real browser: the page loads without an error from disk and from its server, layers lie where they should, names stay text"
import html
import json
import re
import shutil
import subprocess

import cv2
import numpy as np
import pytest

from hipt_nb.slide import Slide
from hipt_nb.viewer import build_viewer, serve

chromium = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
needs_browser = pytest.mark.skipif(chromium is None, reason='no Chromium on this machine')
flags = ('--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update '
         '--disable-sync --hide-scrollbars --force-device-scale-factor=1 --window-size=1000,700 --virtual-time-budget=5000').split()


def browse(url, profile, *args):
    res = subprocess.run([chromium, *flags, f'--user-data-dir={profile}', *map(str, args), url], capture_output=True, text=True, timeout=120)
    assert res.returncode == 0, res.stderr[-2000:]
    return res.stdout


def state(dom):
    "What the page says of itself: the data-* attributes of its body"
    return {k: html.unescape(v) for k, v in re.findall(r'data-([\w-]+)="([^"]*)"', re.search(r'<body([^>]*)>', dom)[1])}


@pytest.fixture
def slide(tmp_path):
    "White, with a dark square; 1200 × 900 px of 2 µm"
    a = np.full((900, 1200, 3), 240, np.uint8)
    a[300:600, 400:800] = 20
    cv2.imwrite(str(tmp_path/'square.png'), a)
    with Slide(tmp_path/'square.png', mpp=2) as s: yield s


def one_map(**kwargs): return dict(name='head 1', array=np.ones((3, 4)), x=400, y=300, width=400, height=300, units='attention', low=0, high=1) | kwargs


def box_of(where):
    ys, xs = np.nonzero(where)
    return np.array([xs.min(), ys.min(), xs.max(), ys.max()])


@needs_browser
def test_page_from_disk_and_layers_in_place(slide, tmp_path):
    "Photographed with and without a layer that should cover the dark square exactly"
    shots = []
    for name, maps in [('plain', []), ('layer', [one_map()])]:
        page = build_viewer(slide, maps, tmp_path/name, tile=256)
        assert state(browse(page.as_uri(), tmp_path/'profile', '--dump-dom')).items() >= {('ready', str(len(maps)))}
        browse(page.as_uri(), tmp_path/'profile', f'--screenshot={tmp_path/name}.png')
        shots.append(cv2.imread(f'{tmp_path/name}.png').astype(int)[60:560, :740])  # the slide; without header, panel, scale bar and overview
    square = box_of(shots[0].max(-1) < 130)
    b, g, r = np.moveaxis(shots[1], -1, 0)
    layer = box_of((r - b > 60) & (g > 90))  # the last colour of viridis is yellow
    assert square[2] - square[0] > 150
    assert abs(square - layer).max() <= 1, (square, layer)


@needs_browser
def test_page_from_its_server(slide, tmp_path):
    "No error, all layers listed, and a name full of markup is only a name"
    slide.name = name = '"><img src=x onerror="document.body.dataset.error=1"> <b>&amp;'
    build_viewer(slide, [one_map(name=name), one_map(name='head 2', group='region', array=np.full((3, 4), np.nan))], tmp_path/'page', label='<i>ill</i>')
    server = serve(tmp_path/'page', block=False)
    try: dom = browse(f'http://127.0.0.1:{server.server_port}/', tmp_path/'profile', '--dump-dom')
    finally:
        server.shutdown()
        server.server_close()
    s = state(dom)
    assert s['ready'] == '2' and s['layer'] == '0' and 'error' not in s
    assert '<img' not in dom and '<i>ill' not in dom and dom.count('type="radio"') == 3
    assert html.unescape(re.search(r'<h1 id="name">(.*?)</h1>', dom)[1]) == name


def test_page_asks_for_nothing_elsewhere(slide, tmp_path):
    page = build_viewer(slide, [one_map()], tmp_path/'page')
    own = [page, *(page.parent/n for n in ('viewer.js', 'viewer.css', 'data.js'))]
    assert not [p.name for p in own if re.search(r'(https?:)?//[\w.-]+\.\w', p.read_text('utf-8'))]
    data = json.loads((page.parent/'data.js').read_text('utf-8').removeprefix('window.HIPT = ').removesuffix(';\n'))
    assert all((page.parent/m['file']).is_file() for m in data['maps'])
    assert (page.parent/'openseadragon.LICENSE.txt').read_text().startswith('Copyright')


def test_label_and_macro_stay_out(hipt_data, tmp_path):
    "The associated images of a real slide are in none of the files"
    with Slide(hipt_data/'CMU-1-Small-Region.svs') as s:
        assert {'label', 'macro'} <= set(s.file.handle.associated_images)
        page = build_viewer(s, [], tmp_path/'page', max_side=1024)
        names = {p.relative_to(page.parent).parts[0] for p in page.parent.rglob('*') if p.is_file()}
    assert names == {'tiles', 'data.js', 'index.html', 'openseadragon.LICENSE.txt', 'openseadragon.min.js', 'viewer.css', 'viewer.js', 'viewer.json'}
    assert sorted(p.name for p in (page.parent/'tiles').iterdir()) == ['0', '1']
