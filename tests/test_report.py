"""The report in a real browser

The answer is in the first screen, links lead somewhere, tables scroll in their boxes, and axe-core finds nothing
serious."""
import re
import shutil
import time

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from hipt_nb.core import write_json
from hipt_nb.phantom import make_slide
from hipt_nb.cohort import read_manifest
from hipt_nb.report import write_report
from hipt_nb.run import Run
from hipt_nb.tiling import tile_cohort

N = 16


def predicted(manifest):
    "Predictions of two folds; those of the first four slides are wrong, the fourth is the most confident of them"
    sure = np.r_[.6, .7, .8, .95, np.linspace(.6, .9, N-4)]
    pred = np.where(np.arange(N)<4, np.where(manifest.label=='A', 'B', 'A'), manifest.label)
    t = manifest[['slide_id','patient','label']].assign(fold=np.arange(N)%2, pred=pred)
    return t.assign(prob_A=np.where(pred=='A', sure, 1-sure), prob_B=np.where(pred=='B', sure, 1-sure))


def model_of(run, name, table):
    "A slide model as training leaves it, without its networks"
    folder = run.slide_model(name)
    (folder/'fold0').mkdir(parents=True)
    made_by = dict(encoder_name=name)
    folds = [dict(train=[], test=[*table[table.fold==k].slide_id]) for k in (0, 1)]
    write_json(folder/'config.json', dict(schema=2, classes=['A','B'], made_by=made_by, recipe='fixed', epochs=1,
               n_folds=2, folds=folds))
    table.to_csv(folder/'predictions.csv', index=False)
    at = dict(slide_id='s03', slide='s03', region=0, weight=1.7)
    pd.DataFrame([at]).to_csv(folder/'fold0'/'attention.csv', index=False)


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    "16 slides of as many patients, all the same phantom: tiles, a slide model, its control, and one viewer page"
    folder = tmp_path_factory.mktemp('report')
    make_slide(folder/'s00.tif', label='infiltrative', seed=3, size=1024)
    for i in range(1, N): (folder/f's{i:02}.tif').symlink_to(folder/'s00.tif')
    rows = pd.DataFrame(dict(path=[str(folder/f's{i:02}.tif') for i in range(N)],
                             patient=[f'p{i:02}' for i in range(N)], label=[*'AB']*(N//2), site=[*'xxyy']*(N//4)))
    rows.to_csv(folder/'m.csv', index=False)
    run, m = Run(folder/'run'), read_manifest(folder/'m.csv')
    tile_cohort(run, m, region_size=512)
    for name in ('x', 'x-random'): model_of(run, name, predicted(m))
    scores = [dict(model=f'HIPT, {n} features', metric='AUC', value=v, low=v-.2, high=min(v+.1, 1), slides=N,
                   patients=N, how="mean over 2 folds, 'B' is positive", note='', unit='slide')
              for n,v in (('x',.9), ('x-random',.5))]
    pd.DataFrame(scores).to_csv(run.table('evaluation'), index=False)
    run.evaluation.mkdir()
    pair = dict(model='HIPT, x features', against='HIPT, x-random features', metric='AUC', difference=.4, low=.1,
                high=.6, patients=N)
    pd.DataFrame([pair]).to_csv(run.evaluation/'comparisons.csv', index=False)
    Image.new('RGB', (1200, 400), 'white').save(run.evaluation/'models-classes.png')
    page = run.root/'pages'/'s03'
    page.mkdir(parents=True)
    write_json(page/'viewer.json', dict(slide_id='s03'))
    (page/'index.html').write_text('<title>viewer</title>')
    write_report(run, m)
    return run


@pytest.fixture
def visit(browser, run):
    "Open the report; afterwards the console must be empty, and nothing may have been asked of the net"
    pages, said = [], []
    def go(width=1280, scheme='light'):
        page = browser.new_page(viewport=dict(width=width, height=800), color_scheme=scheme)
        pages.append(page)
        page.on('console', lambda m: said.append(m.text))
        page.on('pageerror', lambda e: said.append(str(e)))
        page.on('request', lambda r: said.append(r.url) if re.match('(https?|wss?):', r.url) else None)
        page.goto((run.root/'index.html').as_uri())
        return page
    yield go
    for p in pages: p.close()
    assert not said, said


def in_screen(page, selector):
    box = page.locator(selector).first.bounding_box()
    return box['y'] >= 0 and box['y'] < 800


def test_the_answer_is_in_the_first_screen(visit):
    page = visit()
    claim = page.locator('.claim').inner_text()
    assert claim == ('HIPT (x features) tells B from A on patients it has not seen: AUC 0.90 (0.70 to 1.00), '
                     '12 of 16 slides right.')
    answer = page.locator('.answer').inner_text()
    assert 'HIPT (random weights) 0.50 (' in answer and 'It is better than HIPT (random weights)' in answer
    assert 'Only 16 patients (8 A, 8 B)' in answer
    for selector in ('.claim', '.warnings li', '.answer img', 'nav a'): assert in_screen(page, selector), selector


@pytest.mark.parametrize('scheme, width', [('light', 1280), ('dark', 390)])
def test_nothing_serious_for_axe(visit, accessible, scheme, width):
    "Nothing is wider than the screen, folded or not"
    page = visit(width, scheme)
    accessible(page)
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    accessible(page)
    assert page.evaluate('document.documentElement.scrollWidth') <= width
    sized = "[...document.images].every(i => i.getAttribute('width') && i.getAttribute('height') && i.alt)"
    parts = "t.caption && t.tHead && t.querySelector('th[scope=row]')"
    headed = f"[...document.querySelectorAll('table')].every(t => {parts})"
    assert page.evaluate(sized) and page.evaluate(headed)


def test_errors_first_and_linked(visit):
    "The most confident error is the first row, and leads to its picture and to its region in the viewer"
    page = visit()
    first = page.locator('#predictions table').nth(1).locator('tbody tr').first
    assert first.inner_text().split()[:7] == ['s03', 'p03', 'B', 'A', '0.95', 'wrong', '1']
    assert page.locator('#slides figure').first.inner_text().startswith('s03')
    first.get_by_text('s03').click()
    page.wait_for_function("scrollY > 1000")
    assert page.evaluate("document.querySelector('figure:target b').textContent") == 's03'
    first.get_by_text('view').click()
    page.wait_for_url('**/pages/s03/index.html#region=r1c1')


def test_a_confusion_leads_to_its_slides(visit):
    page = visit()
    cells = page.locator('#predictions table').first.locator('tbody a')
    assert cells.all_inner_texts() == ['6', '2', '2', '6']
    cells.nth(2).click()  # label B, predicted A
    there = page.locator('details:target')
    assert 'label B, predicted A: 2' in there.inner_text()
    there.locator('summary').click()
    assert page.locator('details:target a').all_inner_texts() == ['s01', 's03']


def test_slides_beyond_the_first_stay_files(visit, run):
    "12 pictures are in the page, the others are loaded from beside it when they are unfolded"
    page = visit()
    more = page.locator('#slides details')
    assert more.locator('summary').inner_text().startswith('4 more slides')
    more.locator('summary').click()
    more.locator('img').last.scroll_into_view_if_needed()
    page.wait_for_function("[...document.querySelectorAll('#slides details img')].every(i => i.naturalWidth > 0)")
    assert page.locator('#slides img[src^="data:"]').count() == 12


def test_printed(visit):
    "On paper folded tables are open, and menus and the dark are gone"
    page = visit(scheme='dark')
    page.emulate_media(media='print')
    assert not page.locator('nav').is_visible()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == 'rgb(255, 255, 255)'


def test_what_was_done_is_said(visit):
    page = visit()
    assert '0 failed' in page.locator('#cohort').inner_text()
    assert "'B' is the positive class" in page.locator('blockquote').inner_text()
    assert time.strftime('%Y', time.gmtime()) in page.locator('header').inner_text()


def test_a_large_cohort(run, tmp_path):
    "400 slides: none of them is opened, and page and time are bounded"
    m = read_manifest(run.root.parent/'m.csv')
    many = pd.concat([m.assign(path='gone.tif')]*25, ignore_index=True)
    other = Run(tmp_path/'run')
    shutil.copytree(run.root/'tiles', other.root/'tiles')
    page = write_report(other, many)
    assert page.stat().st_size < 1_000_000 and page.read_text('utf-8').count('src="tiles/') == 400-12


def test_slides_that_were_moved(run, tmp_path, capsys):
    "`hipt report --slides` finds them by their ids; the run keeps where they are, and the page names no folder"
    from hipt_nb.cli import report
    other, there = Run(tmp_path/'run'), tmp_path/'elsewhere'/'deep'
    there.mkdir(parents=True)
    m = read_manifest(run.root.parent/'m.csv').head(2)
    for p in m.path: shutil.copy(p, there)
    other.keep_manifest(m.assign(path=[f'gone/{s}.tif' for s in m.slide_id]))
    tile_cohort(other, other.find_again(there) and other.manifest(), region_size=512)
    shutil.move(there, tmp_path/'moved')
    for p in other.root.glob('tiles/*.jpg'): p.unlink()  # then slides are opened
    report([other.table('manifest')], other.root, where=tmp_path/'moved')
    assert 'report: 2 slides found' in capsys.readouterr().out
    page = (other.root/'index.html').read_text('utf-8')
    assert page.count('src="data:image/jpeg') == 2 and str(tmp_path) not in page
    assert all(p.startswith(str(tmp_path/'moved')) for p in other.manifest().path)
