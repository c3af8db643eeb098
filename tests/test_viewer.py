"""The viewer in a real browser

Pages load without errors from disk and from their server, layers switch and are aligned, a polygon is drawn and
saved, and names stay text."""
import http.client
import http.server
import json
import random
import re
import socket
import threading
import time
from functools import partial
from importlib.resources import files

import cv2
import numpy as np
import pytest

from hipt_nb.slide import Slide
from hipt_nb.notes import read_notes
from hipt_nb.viewer import PageSource, build_viewer, list_viewers, reopen, serve, show

loaded = "document.body.dataset.ready !== undefined && hiptViewer.items.every(i => i !== undefined)"


@pytest.fixture
def visit(browser):
    "Open a page and wait until it is ready; afterwards the console must be empty"
    messages, pages = [], []
    def said(m):
        expected = re.search('GPU stall|WebGL|status of 409', m.text)  # 409: a note was changed elsewhere
        if m.type in ('error', 'warning') and not expected: messages.append(m.text)
    def go(url, width=1000, height=700, **kw):
        page = browser.new_page(viewport=dict(width=width, height=height), **kw)
        pages.append(page)
        page.on('console', said)
        page.on('pageerror', lambda e: messages.append(str(e)))
        page.goto(url)
        page.wait_for_function(loaded)
        page.wait_for_timeout(700)  # until the last tile has faded in
        return page
    yield go
    errors = [p.evaluate("document.body.dataset.error || ''") for p in pages]
    for p in pages: p.close()
    assert not messages and not any(errors), (messages, errors)


@pytest.fixture
def slide(tmp_path):
    "White with a dark square, 1200 × 900 px at 2 µm per pixel"
    a = np.full((900, 1200, 3), 240, np.uint8)
    a[300:600, 400:800] = 20
    cv2.imwrite(str(tmp_path/'square.png'), a)
    with Slide(tmp_path/'square.png', slide_mpp=2) as s: yield s


@pytest.fixture
def live(slide, tmp_path):
    "A server with one live page: two levels, one of them with two heads in two scalings, and two regions"
    ramp = dict(level='patches', array=np.arange(12.).reshape(3, 4), low=0, high=12)
    kinds = [(h, s) for s in ('raw', 'rank') for h in ('head 1', 'head 2')]
    maps = [one_map(), *(one_map(name=f'patches {h} {s}', head=h, scaling=s, **ramp) for h, s in kinds)]
    regions = [dict(name=name, x=x, y=0, size=600, cells=2, score=score)
               for name, x, score in (('r1c1', 0, .25), ('r1c2', 600, .75))]
    said = dict(label='made up', prediction='predicted a (0.70), held out', about='attention of x-random',
                warning='UNTRAINED')
    page = dict(live=True, regions=regions, listed=True, **said)
    build_viewer(slide, maps, tmp_path/'pages'/'square', **page)
    list_viewers(tmp_path/'pages')
    source = PageSource(reopen(slide), tmp_path/'notes.geojson', lambda: maps)
    server = serve(tmp_path/'pages', block=False, sources={'square': source})
    yield f'http://127.0.0.1:{server.server_port}/square/'
    server.shutdown()
    server.server_close()


def one_map(**kwargs):
    "Over the dark square"
    place = dict(x=400, y=300, width=400, height=300)
    return dict(name='head 1', array=np.ones((3, 4)), **place, units='attention', low=0, high=1) | kwargs


def photo(page):
    "The slide's part of a screenshot, BGR"
    png = np.frombuffer(page.screenshot(animations='disabled'), np.uint8)
    return cv2.imdecode(png, 1).astype(int)[60:560, :600]


def box_of(where):
    ys, xs = np.nonzero(where)
    return np.array([xs.min(), ys.min(), xs.max(), ys.max()])


# where a point of the slide is in the window
on_screen = '''([x, y]) => {
    const p = hiptViewer.viewer.viewport.pixelFromPoint(new OpenSeadragon.Point(x / 1200, y / 1200), true);
    const box = document.getElementById("slide").getBoundingClientRect();
    return [p.x + box.x, p.y + box.y];
}'''


def state(page, key): return page.evaluate('k => document.body.dataset[k]', key)


@pytest.mark.parametrize('zoom', [1, 2.37])
def test_tiles_line_up_with_the_map(slide, tmp_path, visit, zoom):
    "Screenshots with and without a layer that should cover the dark square exactly"
    page = visit(build_viewer(slide, [one_map()], tmp_path/'page', tile=256).as_uri())
    page.evaluate('z => hiptViewer.viewer.viewport.zoomTo(z, null, true)', zoom)
    page.add_style_tag(content='#buttons { display: none }')
    shots = []
    for layer in (-1, 0):
        page.evaluate('i => hiptViewer.choose(i)', layer)
        page.wait_for_timeout(800)
        shots.append(photo(page))
    square = box_of(shots[0].max(-1) < 130)
    b, g, r = np.moveaxis(shots[1], -1, 0)
    layer = box_of((r - b > 60) & (g > 90))  # the last colour of viridis is yellow
    assert square[2] - square[0] > 150
    assert abs(square - layer).max() <= 1, (square, layer)


def test_layers_switch(live, visit):
    "By list, selectors and keyboard"
    page = visit(live)
    assert state(page, 'layer') == '0' and page.locator('#head').is_hidden()
    page.keyboard.press('.')
    assert state(page, 'layer') == '1'
    page.keyboard.press('h')
    assert state(page, 'layer') == '2' and page.locator('#head').input_value() == 'head 2'
    page.locator('#scaling').select_option('rank')
    assert state(page, 'layer') == '4'
    page.get_by_label('slide only').check()
    assert state(page, 'layer') == '-1' and page.locator('#bar').is_hidden()
    page.keyboard.press('.')
    page.wait_for_timeout(300)
    page.locator('#opacity').fill('80')
    assert state(page, 'opacity') == '0.8'
    page.keyboard.press('[')
    page.keyboard.press(' ')
    assert state(page, 'opacity') == '0'
    page.keyboard.press('n')
    assert state(page, 'visited') == '0'  # the most attended of the two regions, on the right
    page.wait_for_timeout(800)
    assert page.evaluate('hiptViewer.viewer.viewport.getCenter(true).x') == pytest.approx(.75, abs=.01)
    page.keyboard.press('g')
    assert page.locator('#grid path').count() == 2
    assert state(page, 'slides') == '1'
    assert 'square · made up · predicted a (0.70), held out' in page.locator('#slides').inner_text()
    assert 'µm' in page.locator('#scale').inner_text()


notes_are_there = "document.body.dataset.notes !== undefined"
all_saved = "document.body.dataset.saving === '0' && document.body.dataset.saved !== undefined"


def to_next_region(page):
    "The next most attended one; the view has arrived there"
    page.keyboard.press('n')
    page.wait_for_timeout(800)


def draw_polygon(page, corners):
    page.locator('#draw-polygon').click()
    at = [page.evaluate(on_screen, c) for c in corners]
    for x, y in at:
        page.mouse.move(x, y)
        page.mouse.click(x, y)
        page.wait_for_timeout(350)  # two clicks at once would end the polygon
    page.mouse.dblclick(*at[-1])
    page.locator('#note').wait_for(state='visible')


def test_polygon_is_drawn_and_saved(live, slide, tmp_path, visit):
    "Around the dark square, saved without a button: corners are where the mouse clicked, also after one was moved"
    page = visit(live)
    page.wait_for_function(notes_are_there)
    page.locator('#author').fill('A. Pathologist')
    draw_polygon(page, [(400, 300), (800, 300), (800, 600), (400, 600)])
    page.wait_for_function(all_saved)
    assert len(read_notes(tmp_path/'notes.geojson', slide)) == 1  # before a word was written
    page.locator('#text').fill('<img src=x> & "quoted"')
    page.locator('#class').select_option('Not relevant')
    page.wait_for_timeout(500)
    page.wait_for_function(all_saved)
    note, = read_notes(tmp_path/'notes.geojson', slide)
    assert (note.name, note.text, note.author) == ('Not relevant', '<img src=x> & "quoted"', 'A. Pathologist')
    off = np.abs(np.array(note.geometry.bounds) - [400, 300, 800, 600]).max()
    assert off < 4  # level-0 px; a screen pixel is 1.6 of them
    x, y = page.evaluate(on_screen, [800, 600])
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x+40, y+40, steps=5)
    page.mouse.up()
    page.wait_for_timeout(600)
    page.wait_for_function(all_saved)
    moved, = read_notes(tmp_path/'notes.geojson', slide)
    assert moved.geometry.bounds[2] > 830 and moved.text == note.text
    page.reload()
    page.wait_for_function("document.body.dataset.notes === '1'")  # it is shown again
    assert page.locator('#list button').inner_text().strip() == 'Not relevant: <img src=x> & "quoted"'
    assert page.locator('#author').input_value() == 'A. Pathologist'


def test_text_typed_while_a_save_is_under_way(live, slide, tmp_path, visit, monkeypatch):
    "Leaving at once loses none of it, though the first request has no answer yet and is overtaken by the second"
    import hipt_nb.viewer as module
    save, bodies = module.save_notes, []
    def slow(source, body):
        bodies.append(body)
        if b'the first words' in body and b'and the last' not in body: time.sleep(4)
        return save(source, body)
    monkeypatch.setattr(module, 'save_notes', slow)
    page, asked = visit(live), []
    page.wait_for_function(notes_are_there)
    to_next_region(page)
    page.keyboard.press('r')
    page.wait_for_function(all_saved)
    page.locator('#text').fill('the first words')
    page.wait_for_timeout(800)  # on its way
    page.locator('#text').fill('the first words and the last')
    page.on('dialog', lambda d: (asked.append(d.type), d.accept()))
    page.goto('about:blank')
    page.wait_for_timeout(4500)
    assert asked == ['beforeunload'] and b'and the last' in bodies[-1]
    assert [n.text for n in read_notes(tmp_path/'notes.geojson', slide)] == ['the first words and the last']


def test_text_survives_a_reload(live, slide, tmp_path, visit):
    "What is typed is saved when the page goes, even if it goes at once"
    page = visit(live)
    page.wait_for_function(notes_are_there)
    to_next_region(page)
    page.keyboard.press('r')
    page.wait_for_function(all_saved)
    page.locator('#text').fill('typed a moment ago')
    page.on('dialog', lambda d: d.accept())
    page.reload()
    page.wait_for_function("document.body.dataset.notes === '1'")
    assert [n.text for n in read_notes(tmp_path/'notes.geojson', slide)] == ['typed a moment ago']


def test_two_tabs(live, slide, tmp_path, visit):
    "Notes of both are kept; of two changes to one note neither wins in silence"
    a, b = visit(live), visit(live)
    for page in (a, b):
        page.wait_for_function(notes_are_there)
        to_next_region(page)
    a.evaluate("Object.defineProperty(document, 'hidden', {get: () => true})")  # in the background, so not refreshed
    a.keyboard.press('r')
    a.wait_for_function(all_saved)
    to_next_region(b)      # the other region
    b.keyboard.press('x')
    b.wait_for_function(all_saved)
    assert sorted(n.name for n in read_notes(tmp_path/'notes.geojson', slide)) == ['Not relevant', 'Relevant']
    assert state(b, 'notes') == '2'  # the first tab's came with the answer
    b.locator('#list button').filter(has_text=re.compile('^ ?Relevant')).click()
    b.locator('#text').fill('from b')
    b.wait_for_timeout(600)
    b.wait_for_function(all_saved)
    a.locator('#list button').filter(has_text=re.compile('^ ?Relevant')).click()
    a.locator('#text').fill('from a')
    a.wait_for_function("document.body.dataset.conflicts === '1'")
    assert 'from b' in a.locator('.conflict').inner_text()
    assert {n.text for n in read_notes(tmp_path/'notes.geojson', slide)} == {'from b', ''}
    assert a.evaluate('hiptViewer.leave()') is False  # undecided: the page is not left for another slide
    a.get_by_role('button', name='Keep mine').click()
    a.wait_for_timeout(300)
    a.wait_for_function(all_saved)
    assert {n.text for n in read_notes(tmp_path/'notes.geojson', slide)} == {'from a', ''}


def test_delete_and_undo(live, slide, tmp_path, visit):
    page = visit(live)
    page.wait_for_function(notes_are_there)
    to_next_region(page)
    page.keyboard.press('r')
    page.locator('#text').fill('to be kept')
    page.wait_for_timeout(500)
    page.wait_for_function(all_saved)
    page.locator('h1').click()
    def left(): return [n.text for n in read_notes(tmp_path/'notes.geojson', slide)]
    page.locator('#drop').click()
    page.wait_for_timeout(500)
    page.wait_for_function(all_saved)
    assert left() == []
    page.locator('#undo').click()
    page.wait_for_timeout(300)
    page.wait_for_function(all_saved)
    assert left() == ['to be kept']


def test_undo_brings_back_what_was_deleted(live, slide, tmp_path, visit):
    "A point, and a line of QuPath's that cannot be drawn here; at once and after the deletion was saved"
    line = dict(type='Feature', id='line', geometry=dict(type='LineString', coordinates=[[0, 0], [90, 90]]),
                properties={})
    path = tmp_path/'notes.geojson'
    path.write_text(json.dumps(dict(type='FeatureCollection', features=[line])))
    page = visit(live)
    page.locator('#draw-point').click()
    page.mouse.click(*page.evaluate(on_screen, [500, 400]))
    page.wait_for_function("document.body.dataset.saved == '2'")
    whole = {n.geometry.wkt for n in read_notes(path, slide)}
    for wait in (0, 1500):
        for n in (0, 1):
            page.locator('#list button').nth(n).click()
            page.locator('#drop').click()
            page.wait_for_timeout(wait)
            page.locator('#undo').click()
            page.wait_for_timeout(600)
            page.wait_for_function(all_saved)
        assert {n.geometry.wkt for n in read_notes(path, slide)} == whole and not state(page, 'conflicts')


def test_a_rectangle_is_dragged_or_clicked(live, slide, tmp_path, visit):
    "Without moving the slide"
    page = visit(live)
    before = page.evaluate('hiptViewer.viewer.viewport.getBounds().toString()')
    a, b = ([100, 100], [400, 300])
    page.locator('#draw-rectangle').click()
    page.mouse.move(*page.evaluate(on_screen, a))
    page.mouse.down()
    page.mouse.move(*page.evaluate(on_screen, [250, 250]))
    page.mouse.move(*page.evaluate(on_screen, b))
    page.mouse.up()
    page.wait_for_function("document.body.dataset.saved == '1'")
    page.locator('#draw-rectangle').click()
    for corner in ([600, 500], [900, 700]):
        page.mouse.click(*page.evaluate(on_screen, corner))
        page.wait_for_timeout(700)
    page.wait_for_function("document.body.dataset.saved == '2'")
    dragged, clicked = [n.geometry.bounds for n in read_notes(tmp_path/'notes.geojson', slide)]
    assert dragged == pytest.approx((*a, *b), abs=6) and clicked == pytest.approx((600, 500, 900, 700), abs=6)
    assert page.evaluate('hiptViewer.viewer.viewport.getBounds().toString()') == before


def test_other_tabs_show_what_one_saved(live, visit):
    "Within seconds, without a reload"
    first, second = visit(live), visit(live)
    draw_polygon(first, [(100, 100), (300, 100), (300, 300)])
    first.wait_for_function("document.body.dataset.saved == '1'")
    second.wait_for_function("document.body.dataset.notes == '1'", timeout=20000)


def test_a_damaged_link_shows_the_whole_slide(live, visit):
    "And nothing in the console"
    page = visit(live+'#x=zz&y=&z=-5&layer=99&turn=a')
    assert page.evaluate('hiptViewer.viewer.viewport.getZoom(true)') > 0


def test_notes_of_qupath_are_shown_and_kept(slide, tmp_path, visit):
    "A point, and a shape without class"
    ring = [[100, 100], [300, 100], [300, 300], [100, 100]]
    shapes = [dict(type='Point', coordinates=[600, 400]), dict(type='Polygon', coordinates=[ring])]
    features = [dict(type='Feature', id=f'q{i}', geometry=g, properties=dict(objectType='annotation'))
                for i, g in enumerate(shapes)]
    (tmp_path/'notes.geojson').write_text(json.dumps(dict(type='FeatureCollection', features=features)))
    build_viewer(slide, [], tmp_path/'pages'/'square', live=True)
    source = PageSource(reopen(slide), tmp_path/'notes.geojson')
    server = serve(tmp_path/'pages', block=False, sources={'square': source})
    try:
        page = visit(f'http://127.0.0.1:{server.server_port}/square/')
        page.wait_for_function("document.body.dataset.notes === '2'")
        page.locator('#list button').nth(1).click()
        page.locator('#text').fill('a fold')
        page.wait_for_timeout(500)
        page.wait_for_function(all_saved)
    finally:
        server.shutdown()
        server.server_close()
    a, b = read_notes(tmp_path/'notes.geojson', slide)
    assert (a.geometry.geom_type, a.feature) == ('Point', features[0])
    assert (b.text, b.name, list(map(list, b.geometry.exterior.coords))) == ('a fold', 'Unclassified', ring)


def test_region_is_marked(live, slide, tmp_path, visit):
    "The most attended one, by key and by button; marked again it stays one note and keeps its text"
    page = visit(live)
    page.wait_for_function(notes_are_there)
    to_next_region(page)
    def saved(press, want):
        press()
        page.wait_for_timeout(500)
        page.wait_for_function(all_saved)
        note, = read_notes(tmp_path/'notes.geojson', slide)
        assert note.geometry.bounds == (600, 0, 1200, 600) and (note.name, note.text) == want
    saved(lambda: page.locator('#no').click(), ('Not relevant', ''))
    saved(lambda: page.locator('#text').fill('no tumour here'), ('Not relevant', 'no tumour here'))
    page.locator('h1').click()
    saved(lambda: page.keyboard.press('r'), ('Relevant', 'no tumour here'))
    page.keyboard.press('.')  # the keys still work: marking does not take them away
    assert state(page, 'layer') == '1'
    page.locator('#text').focus()
    page.keyboard.press('.')  # in the text field, where it does not change the layer
    assert state(page, 'layer') == '1'


def test_keyboard(live, visit):
    "A control in focus is pressed by Space; Escape ends drawing; arrows move, + and - zoom; ? shows the keys"
    page = visit(live)
    page.wait_for_function(notes_are_there)
    page.locator('#draw-polygon').focus()
    page.keyboard.press(' ')
    assert state(page, 'drawing') == '1' and float(state(page, 'opacity')) > 0
    page.locator('h1').click()
    page.keyboard.press('Escape')
    assert state(page, 'drawing') == '0'
    view = 'hiptViewer.viewer.viewport'
    zoom = page.evaluate(f'{view}.getZoom()')
    page.keyboard.press('+')
    page.keyboard.press('+')
    assert page.evaluate(f'{view}.getZoom()') > 1.4*zoom
    x = page.evaluate(f'{view}.getCenter().x')
    page.keyboard.press('ArrowRight')
    assert page.evaluate(f'{view}.getCenter().x') > x
    page.keyboard.press('?')
    assert page.locator('#help').is_visible()
    page.keyboard.press('Escape')
    page.keyboard.press('0')
    page.wait_for_timeout(700)
    assert page.evaluate(f'{view}.getZoom()') == pytest.approx(zoom, rel=.01)


def focused(page):
    "Id, or what else there is, of what has the focus; whether it can be seen to have it"
    return page.evaluate("""() => {
        const e = document.activeElement, s = getComputedStyle(e), b = e.getBoundingClientRect();
        const name = e.id || e.getAttribute('class') || e.textContent.trim() || e.tagName;
        return [name, s.outlineStyle !== 'none' &&
                parseFloat(s.outlineWidth) > 0 && b.width > 0 && b.height > 0];
    }""")


def test_a_visit_without_a_mouse(live, slide, tmp_path, visit):
    "Tab reaches every control, and shows where it is; arrows and Enter draw shapes and a point, and measure a line"
    page = visit(live)
    page.wait_for_function(notes_are_there)
    reached = {}
    for _ in range(60):
        page.keyboard.press('Tab')
        name, visible = focused(page)
        if name in reached or page.evaluate('document.activeElement === document.body'): break
        reached[name] = visible
    wanted = {'slides', 'zoom-in', 'zoom-out', 'home', 'turn', 'full', 'opacity', 'from', 'colours', 'gridded', 'times',
              'measure', 'snapshot', 'beside', 'author', 'draw-polygon', 'draw-rectangle', 'draw-freehand',
              'draw-point', 'yes', 'no', 'fetch', 'bring', 'help-open'}
    assert wanted <= set(reached), wanted-set(reached)
    assert [k for k, seen in reached.items() if not seen] == []
    def press(*keys):
        for k in keys:
            page.keyboard.press(k)
            page.wait_for_timeout(650 if k.startswith('Arrow') else 60)
    def saved():
        page.wait_for_timeout(500)
        page.wait_for_function(all_saved)
        return read_notes(tmp_path/'notes.geojson', slide)
    page.locator('#draw-rectangle').focus()
    press('Enter', 'ArrowLeft')
    assert page.locator('#cross').is_visible() and 'r1c1' in page.locator('#under').inner_text()
    press('Enter', 'ArrowRight', 'ArrowRight', 'ArrowDown', 'Enter')
    x0, y0, x1, y1 = saved()[0].geometry.bounds
    assert (x1-x0, y1-y0) == pytest.approx((300, 112), rel=.25)  # two eighths of the view, and one
    page.keyboard.type('by keys')
    press('Escape')
    page.locator('#draw-point').focus()
    press(' ', 'Enter')
    page.locator('#draw-polygon').focus()
    press(' ', 'Enter', 'ArrowLeft', 'Enter', 'ArrowUp', 'Enter', 'Enter')
    rectangle, point, polygon = saved()
    assert (rectangle.text, point.geometry.geom_type, len(polygon.geometry.exterior.coords)) == ('by keys', 'Point', 4)
    page.locator('#measure').focus()
    press('Enter', 'Enter', 'ArrowRight', 'Enter')
    assert 'µm' in state(page, 'measured')
    page.locator('#list button').first.focus()
    press('Enter')
    page.wait_for_timeout(700)
    page.locator('#drop').focus()
    press('Enter')
    assert len(saved()) == 2
    page.locator('#undo').focus()
    press('Enter')
    assert len(saved()) == 3
    page.locator('#help-open').focus()
    press('Enter')
    page.locator('#letters').focus()
    press(' ', 'Escape', '0', 'g')  # letters are keys no longer
    assert page.locator('#grid path').count() == 0


def test_reduced_motion(live, visit):
    "Who asks for less motion gets none: the view is where it goes to at once"
    page = visit(live, reduced_motion='reduce')
    page.keyboard.press('n')
    page.evaluate('new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))')
    now, then = page.evaluate("[true, false].map(k => hiptViewer.viewer.viewport.getCenter(k).x)")
    assert now == then == pytest.approx(.75, abs=.01)
    page.wait_for_timeout(300)
    assert 'x=900' in page.url
    assert page.evaluate("document.getAnimations().length") == 0


@pytest.mark.parametrize('scheme, width', [('light', 1280), ('dark', 390)])
def test_nothing_serious_for_axe(live, visit, accessible, scheme, width):
    "The page with a note, its help, and the list of slides; none is wider than the screen"
    page = visit(live, width=width, color_scheme=scheme)
    page.wait_for_function(notes_are_there)
    to_next_region(page)
    page.keyboard.press('r')
    page.wait_for_function(all_saved)
    page.locator('#list button').click()  # with its handles
    page.wait_for_timeout(700)
    def check():
        accessible(page)
        assert page.evaluate('document.documentElement.scrollWidth') <= width
    check()
    page.keyboard.press('?')
    check()
    page.goto(live.removesuffix('square/'))
    check()


def test_tokens_of_any_region(slide, tmp_path, visit):
    "Stored ones at once, others when one goes to their region and the server has computed them; head and scaling stay"
    regions = [dict(name=n, x=x, y=0, size=600, cells=2, score=s) for n, x, s in (('r1c1', 0, .2), ('r1c2', 600, .8))]
    asked = []
    def tokens(name):
        x, level = regions[[r['name'] for r in regions].index(name)]['x'], 3 if name == 'r1c1' else 5
        place = dict(x=x, y=0, width=600, height=600, level='tokens', region=name, scaling='raw', high=9)
        return [one_map(name=f'{name} {h}', head=h, array=np.full((4, 4), level+k), **place)
                for k, h in enumerate(('mean', 'head 1'))]
    def compute(name):
        asked.append(name)
        return tokens(name)
    maps = [one_map(), *tokens('r1c2')]
    build_viewer(slide, maps, tmp_path/'page', live=True, regions=regions, tokens=True)
    source = PageSource(reopen(slide), layers=lambda: maps, tokens=compute)
    server = serve(tmp_path/'page', block=False, sources={'': source})
    try:
        page = visit(f'http://127.0.0.1:{server.server_port}/')
        def here():
            page.wait_for_timeout(900)
            x = 1000 if page.evaluate('hiptViewer.centre()[0]') > 600 else 200
            page.mouse.move(*page.evaluate(on_screen, [x, 100]))
            return page.locator('#under').inner_text().split(' · ')[:2]
        page.keyboard.press('n')
        page.wait_for_timeout(800)
        page.get_by_label('tokens', exact=True).check()
        page.locator('#head').select_option('head 1')
        assert here() == ['6', 'r1c2'] and asked == []
        assert 'layer=tokens' in page.url
        page.locator('h1').click()
        page.keyboard.press('n')
        page.wait_for_function("document.body.dataset.computed === 'r1c1'")
        assert here() == ['4', 'r1c1'] and page.locator('#head').input_value() == 'head 1'
        page.keyboard.press('p')
        assert here() == ['6', 'r1c2']
        page.keyboard.press('n')
        assert here() == ['4', 'r1c1'] and set(asked) == {'r1c1'}
        page.reload()
        page.wait_for_function("document.body.dataset.computed === 'r1c1'")  # the address leads there again
    finally:
        server.shutdown()
        server.server_close()


def test_a_slide_keeps_its_name(slide, tmp_path, visit):
    "After going to another slide and back, forward and by reload, list and heading agree"
    for name in ('one', 'two'):
        slide.name = name
        build_viewer(slide, [], tmp_path/'pages'/name, live=True, listed=True)
    list_viewers(tmp_path/'pages')
    server = serve(tmp_path/'pages', block=False, sources={n: PageSource(reopen(slide)) for n in ('one', 'two')})
    try:
        page = visit(f'http://127.0.0.1:{server.server_port}/one/')
        def shown():
            page.wait_for_function("document.body.dataset.slides === '2'")
            return page.locator('#name').inner_text(), page.locator('#slides').input_value()
        assert shown() == ('one', 'one')
        page.locator('#slides').select_option('two')
        page.wait_for_url('**/two/**')
        assert shown() == ('two', 'two')
        page.go_back()
        assert shown() == ('one', 'one')
        page.go_forward()
        assert shown() == ('two', 'two')
        page.reload()
        assert shown() == ('two', 'two')
    finally:
        server.shutdown()
        server.server_close()


def test_a_link_leads_to_the_view(live, visit):
    page = visit(live + '#x=300&y=200&z=3&layer=2')
    view = page.evaluate('[hiptViewer.viewer.viewport.getZoom(true), '
                         'hiptViewer.viewer.viewport.getCenter(true).x*1200]')
    assert view == pytest.approx([3, 300], abs=1) and state(page, 'layer') == '2'


def test_the_page_says_whose_maps_these_are(live, visit):
    "In words, beside the slide's name; what means nothing is red"
    page = visit(live)
    said = page.locator('header').inner_text()
    for words in ('label made up', 'predicted a (0.70), held out', 'attention of x-random', 'UNTRAINED'):
        assert words in said


def test_value_under_the_cursor(live, visit):
    "As it was before it was coloured, with the region's name and the place"
    page = visit(live)
    page.evaluate('hiptViewer.choose(1)')  # 0 to 11, row by row, over the dark square
    page.wait_for_function('hiptViewer.items[1]')
    page.mouse.move(*page.evaluate(on_screen, [650, 350]))  # first row, third column
    assert page.locator('#under').inner_text() == '2 · r1c2 · 1.30 mm, 700 µm'
    page.mouse.move(*page.evaluate(on_screen, [100, 700]))
    assert page.locator('#under').inner_text() == '200 µm, 1.40 mm'


def test_threshold_and_colours(live, visit):
    "Cells below the threshold are not drawn, and another colour map is another colour"
    page = visit(live)
    page.evaluate('hiptViewer.choose(1)')
    page.locator('#opacity').fill('100')
    def seen(point):
        page.wait_for_timeout(900)
        x, y = page.evaluate(on_screen, point)
        image = cv2.imdecode(np.frombuffer(page.screenshot(animations='disabled'), np.uint8), 1)
        return image[int(y), int(x)].astype(int)
    low, high = [650, 350], [750, 550]  # values 2 and 11
    assert seen(low)[0] > 60  # viridis begins in violet; the slide is dark there
    page.locator('#from').fill('50')
    assert seen(low).max() < 40 and seen(high)[1] > 150
    assert page.locator('#least').inner_text() == '6'
    page.locator('#colours').select_option('gray')
    b, g, r = seen(high)
    assert max(b, g, r) - min(b, g, r) < 8 and g > 150


def test_a_line_is_measured(live, visit):
    page = visit(live)
    page.keyboard.press('m')
    for point in ([100, 100], [400, 500]):
        page.mouse.click(*page.evaluate(on_screen, point))
        page.wait_for_timeout(400)
    value, unit = state(page, 'measured').split()
    assert unit == 'mm' and float(value) == pytest.approx(1, abs=.02)  # 500 px at 2 µm
    page.keyboard.press('m')
    assert page.locator('#ruler line').count() == 0


def test_a_turned_view(live, visit):
    "The grid turns along, and the address keeps the angle"
    page = visit(live)
    page.locator('#gridded').check()
    page.keyboard.press('o')
    page.wait_for_timeout(900)
    assert '&turn=90' in page.url
    a, b = page.evaluate('[hiptViewer.at(0, 0), hiptViewer.at(600, 0)]')
    assert abs(a['x']-b['x']) < 1 < abs(a['y']-b['y'])
    first = page.locator('#grid path').first.get_attribute('d')
    x, y = map(float, re.match(r'M(\S+) ([^L]+)L', first).groups())
    assert (x, y) == pytest.approx((a['x'], a['y']), abs=1)


def test_two_views_move_together(live, visit):
    page = visit(live)
    page.locator('#beside').select_option('index.html')
    page.wait_for_function('document.getElementById("beside-frame").contentWindow.hiptViewer')
    other = page.frames[1]
    other.wait_for_function(loaded)
    page.wait_for_timeout(500)
    place = '[hiptViewer.viewer.viewport.getCenter(true).x, hiptViewer.viewer.viewport.getBounds(true).width]'
    for press in (page.locator('#zoom-in'), other.locator('#zoom-out')):
        press.click()
        page.wait_for_timeout(1200)
        assert page.evaluate(place) == pytest.approx(other.evaluate(place), abs=.01)


def test_a_picture_of_the_view(live, visit, tmp_path):
    "With map, scale bar and words; of the size of the view"
    page = visit(live)
    with page.expect_download() as d: page.locator('#snapshot').click()
    d.value.save_as(tmp_path/'shot.png')
    image = cv2.imread(str(tmp_path/'shot.png')).astype(int)
    box = page.locator('#slide').bounding_box()
    assert abs(image.shape[1]-box['width']) < 3
    b, g, r = np.moveaxis(image, -1, 0)
    assert ((r-b > 60) & (g > 90)).sum() > 1000  # yellow over the dark square
    assert (image[-40:-30, 16:60].max(-1) < 60).sum() > 20  # the bar
    assert d.value.suggested_filename == 'square.png'


def test_points_freehand_and_files_for_qupath(live, slide, tmp_path, visit):
    page = visit(live)
    page.wait_for_function(notes_are_there)
    page.locator('#draw-point').click()
    page.mouse.click(*page.evaluate(on_screen, [200, 700]))
    page.wait_for_timeout(600)
    page.wait_for_function(all_saved)
    page.locator('h1').click()
    page.keyboard.press('e')
    at = [page.evaluate(on_screen, [1000+80*np.cos(k/4), 600+80*np.sin(k/4)]) for k in range(26)]
    page.mouse.move(*at[0])
    page.mouse.down()
    for x, y in at: page.mouse.move(x, y)
    page.mouse.up()
    page.wait_for_timeout(600)
    page.wait_for_function(all_saved)
    dot, shape = (n.geometry for n in read_notes(tmp_path/'notes.geojson', slide))
    assert (dot.geom_type, shape.geom_type) == ('Point', 'Polygon')
    assert np.abs(np.array(dot.coords[0])-[200, 700]).max() < 4
    assert shape.area == pytest.approx(np.pi*80**2, rel=.1)
    assert page.locator('#dots circle').count() == 1
    with page.expect_download() as d: page.locator('#fetch').click()
    d.value.save_as(tmp_path/'out.geojson')
    data = json.loads((tmp_path/'out.geojson').read_text())
    assert len(data['features']) == 2
    ring = [[[10, 10], [90, 10], [90, 90], [10, 10]]]
    data['features'].append(dict(type='Feature', geometry=dict(type='Polygon', coordinates=ring),
                                 properties=dict(classification=dict(name='Tumor', color=[200, 0, 0]))))
    (tmp_path/'in.geojson').write_text(json.dumps(data))
    page.locator('#bring').set_input_files(tmp_path/'in.geojson')
    page.wait_for_function("document.body.dataset.imported === '1'")
    assert [n.name for n in read_notes(tmp_path/'notes.geojson', slide)][2] == 'Tumor'
    assert state(page, 'notes') == '3'


def test_a_notebook_leads_the_page(slide, tmp_path, browser):
    "The frame of `show` goes where it is told, and says where it is"
    shown = show(slide, [one_map()], regions=[dict(name='r1c2', x=600, y=0, size=600, cells=2, score=None)])
    (tmp_path/'lab').mkdir()
    (tmp_path/'lab'/'index.html').write_text(shown._repr_html_())
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path/'lab'))
    lab = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)  # stands for the notebook's own server
    threading.Thread(target=lab.serve_forever, daemon=True).start()
    page = browser.new_page()
    page.goto(f'http://localhost:{lab.server_port}/')
    frame = page.frames[1]
    frame.wait_for_function(loaded)
    shown.go(300, 200, zoom=3)
    centre = 'hiptViewer.viewer.viewport.getCenter(true)'
    frame.wait_for_function(f'Math.abs({centre}.x*1200-300) < 2 && Math.abs({centre}.y*1200-200) < 2')
    shown.region('r1c2')
    frame.wait_for_function(f'Math.abs({centre}.x*1200-900) < 2')
    page.wait_for_timeout(1200)
    assert shown.source.seen['x'] == pytest.approx(900, abs=2)
    assert shown.snapshot(300).size[0] == 300
    page.close()
    lab.shutdown()
    lab.server_close()


def test_the_list_is_sorted_and_searched(slide, tmp_path, browser):
    "The most confident errors first; a click sorts, a word narrows"
    rows = [dict(slide_id=n, label='a', prediction=f'predicted {p}', right=p == 'a', confidence=c)
            for n, p, c in (('one', 'a', .9), ('two', 'b', .6), ('three', 'b', .8))]
    for r in rows: build_viewer(slide, [], tmp_path/'pages'/r['slide_id'], listed=True)
    page = browser.new_page()
    page.goto(list_viewers(tmp_path/'pages', rows).as_uri())
    def names(): return page.locator('tbody tr:visible a').all_inner_texts()
    assert names() == ['three', 'two', 'one']
    page.get_by_role('button', name='Confidence').click()
    assert names() == ['two', 'three', 'one']
    page.locator('#find').fill('predicted B')
    assert names() == ['two', 'three'] and page.locator('#count').inner_text() == '2 of 3 slides'
    assert page.locator('img').first.evaluate('i => i.complete && i.naturalWidth > 0')
    page.locator('tbody tr:visible a').first.click()
    page.locator('#all').wait_for()
    page.go_back()
    page.wait_for_function("document.getElementById('find').value === 'predicted B'")
    assert names() == ['two', 'three']
    page.close()


def test_a_slide_that_belongs_to_no_run(slide, tmp_path, visit):
    "Its page comes at once, says whether notes are kept, and keeps them where it was told to"
    from hipt_nb.viewer import one_page
    for out, said in ((None, 'notes are not kept'), (tmp_path/'kept', 'notes are kept in')):
        folder = tmp_path/f'page {said}'
        folder.mkdir()
        server = serve(folder, block=False, sources=one_page(slide.path, folder, 2, out))
        page = visit(f'http://127.0.0.1:{server.server_port}/')
        assert said in page.locator('#about').inner_text() and page.locator('#all').is_hidden()
        assert page.locator('#notes').is_visible() == bool(out)
        if out:
            draw_polygon(page, [(100, 100), (300, 100), (300, 300)])
            page.wait_for_function("document.body.dataset.saved == '1'")
            assert len(read_notes(out/'square.geojson', slide)) == 1
        server.shutdown()
        server.server_close()


def test_names_stay_text(slide, tmp_path, visit):
    "Markup in a name is shown as text, on the page and in the list of slides"
    slide.name = name = '"><img src=x onerror="document.body.dataset.error=1"> <b>&amp;'
    maps = [one_map(name=name), one_map(name='head 2', array=np.full((3, 4), np.nan))]
    build_viewer(slide, maps, tmp_path/'pages'/'page', label='<i>ill</i>', listed=True, prediction='<u>')
    listed = list_viewers(tmp_path/'pages').read_text('utf-8')
    assert not re.search('<(b|i|u)[ >]|onerror="',
                         listed) and '&lt;i&gt;ill&lt;/i&gt;' in listed and '&lt;u&gt;' in listed
    server = serve(tmp_path/'pages', block=False)
    try: page = visit(f'http://127.0.0.1:{server.server_port}/page/')
    finally:
        server.shutdown()
        server.server_close()
    assert page.locator('#layers input').count() == 3
    assert page.locator('main img, #label i, u').count() == 0
    assert page.locator('#name').inner_text() == name
    assert page.locator('#label').inner_text() == 'label <i>ill</i>'


def test_answers_are_not_held_back(live):
    "On one kept connection, as a browser uses it: without the kernel waiting about 40 ms for an acknowledgement"
    c = http.client.HTTPConnection('127.0.0.1', int(live.split(':')[2].split('/')[0]))
    def one():
        t = time.perf_counter()
        c.request('GET', '/square/tiles/0/0_0.jpg')
        assert c.getresponse().read()[:2] == b'\xff\xd8'
        return time.perf_counter()-t
    times = sorted(one() for _ in range(40))
    c.close()
    assert times[10] < .03, times


def raw(port, data):
    "The beginning of what a server answers to some bytes"
    with socket.create_connection(('127.0.0.1', port), timeout=5) as c:
        c.sendall(data)
        c.shutdown(socket.SHUT_WR)
        try: return c.recv(15)
        except ConnectionError: return b''


def test_odd_requests_are_answered(live, capfd):
    "NUL, odd hosts, origins, sizes and names, and 150 requests with changed bytes: no traceback, and still there"
    port = int(live.split(':')[2].split('/')[0])
    token = json.loads(http_get(port, '/square/session.json'))['token'].encode()
    hosts = [b'[', b'local\0host', b'localhost:99999999', b'', b'\xff']
    origins = [b'http://[', b'\xff\xfe', b'http://\0', b'null', b'http://localhost:abc', b'//', b'http://[::1']
    sizes = [b'-1', b'1e3', b'9'*15, b'', b'\xb2', b'1 2', b'0x2', b'1000', b'\0']
    paths = [b'/\0', b'/%00', b'/square/\0', b'/'+b'a'*5000, b'/square/'+b'a'*300, b'//[/x', b'http://[/', b'/?[',
             b'/square/tiles/%D9%A1/0_0.jpg', b'/square/tiles/0/\xc2\xb2_0.jpg', b'/'+b'../'*50+b'etc/passwd']
    post = b'POST /square/notes HTTP/1.1\r\nHost: localhost\r\nX-HIPT-Token: '+token+b'\r\nContent-Length: '
    asked = [*(b'GET / HTTP/1.1\r\nHost: '+h+b'\r\n\r\n' for h in hosts),
             *(b'GET / HTTP/1.1\r\nHost: localhost\r\nOrigin: '+o+b'\r\n\r\n' for o in origins),
             *(post+n+b'\r\n\r\n{}' for n in sizes),
             *(b'GET '+p+b' HTTP/1.1\r\nHost: localhost\r\n\r\n' for p in paths)]
    rng = random.Random(0)
    good = (b'GET /square/tiles/0/0_0.jpg?x=1 HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\n'
            b'If-Modified-Since: Thu, 01 Jan 2020 00:00:00 GMT\r\n\r\n')
    for _ in range(150):
        changed = bytearray(good)
        for _ in range(rng.randint(1, 4)): changed[rng.randrange(len(good)-4)] = rng.randrange(256)
        asked.append(bytes(changed))
    for data in asked: raw(port, data)
    for data in asked[len(hosts)+len(origins):-150]:
        assert raw(port, data)[9:12] in (b'200', b'400', b'404', b'413'), data
    assert raw(port, good) == b'HTTP/1.1 200 OK'
    time.sleep(.3)
    assert capfd.readouterr().err == ''


def http_get(port, path):
    c = http.client.HTTPConnection('127.0.0.1', port, timeout=5)
    c.request('GET', path)
    body = c.getresponse().read()
    c.close()
    return body


def test_page_asks_for_nothing_elsewhere(slide, tmp_path):
    page = build_viewer(slide, [one_map()], tmp_path/'page')
    own = [page, *(page.parent/n for n in ('viewer.js', 'viewer.css', 'data.js'))]
    text = [p.read_text('utf-8').replace('http://www.w3.org/2000/svg', '') for p in own]  # a namespace, not an address
    assert not [t for t in text if re.search(r'(https?:)?//[\w.-]+\.\w', t)]
    data = json.loads((page.parent/'data.js').read_text('utf-8').removeprefix('window.HIPT = ').removesuffix(';\n'))
    assert all((page.parent/m['file']).is_file() for m in data['maps'])
    for part in ('openseadragon', 'annotorious'):
        assert 'Copyright' in (files('hipt_nb')/'static'/f'{part}.LICENSE.txt').read_text()


def test_a_run_that_cannot_be_written_to(tmp_path, monkeypatch, caplog):
    "Its pages go elsewhere, and nothing in it changes"
    from hipt_nb import cli, run, viewer
    from hipt_nb.cohort import read_manifest
    from hipt_nb.core import HIPTError
    from hipt_nb.phantom import make_slide
    from hipt_nb.tiling import tile_cohort
    make_slide(tmp_path/'one.tif', label='glandular', seed=1, size=2048)
    r, manifest = run.Run(tmp_path/'run'), read_manifest(tmp_path/'one.tif')
    r.keep_manifest(manifest)
    tile_cohort(r, manifest, region_size=1024)
    def refuse(self): raise HIPTError('read-only')
    def stand(): return {p: p.stat().st_mtime_ns for p in (r.root, *r.root.rglob('*'))}
    monkeypatch.setattr(run.Run, '_check', refuse)
    before, served = stand(), []
    def look(folder, *args, **kw): served.append(sorted(p.name for p in folder.iterdir()))
    monkeypatch.setattr(viewer, 'serve', look)
    cli.app(['view', str(r.root), '--static', str(tmp_path/'pages')], standalone_mode=False)
    assert (tmp_path/'pages'/'one'/'tiles'/'0'/'0_0.jpg').exists()
    cli.app(['view', str(r.root)], standalone_mode=False)
    assert served == [['index.html', 'slides-list.js', 'slides.js']] and 'no note can be saved' in caplog.text
    assert stand() == before


@pytest.mark.parametrize('live', [False, True])
def test_label_and_macro_stay_out(hipt_data, tmp_path, live):
    "The associated images of a real slide are in none of the files written"
    with Slide(hipt_data/'CMU-1-Small-Region.svs') as s:
        assert {'label', 'macro'} <= set(s.file.handle.associated_images)
        build_viewer(s, [], tmp_path/'page', max_side=1024, live=live)
        names = {p.relative_to(tmp_path/'page').parts[0] for p in (tmp_path/'page').rglob('*') if p.is_file()}
    shown = {'index.html', 'viewer.css', 'viewer.js', 'openseadragon.LICENSE.txt', 'openseadragon.min.js', 'tiles'}
    assert names == {'data.js', 'viewer.json'} | (set() if live else shown)
    if not live: assert sorted(p.name for p in (tmp_path/'page'/'tiles').iterdir()) == ['0', '1']
