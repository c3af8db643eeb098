"The command as a user meets it: help, one clear line for every mistake, and the whole road at its smallest"
import os, re, signal, subprocess, sys
import pytest

def hipt(*args, **kw):
    return subprocess.run([sys.executable, '-c', 'from hipt_nb.cli import main; main()', *map(str, args)],
                          capture_output=True, text=True, timeout=600, **kw)

def walk(*verbs):
    "Several commands in one process, which imports only once; every test of an error has a process of its own"
    code = ('import sys\nfrom hipt_nb.cli import main\nfor sys.argv[1:] in %r:\n    try: main()\n'
            '    except SystemExit as e:\n        if e.code: raise')
    r = subprocess.run([sys.executable, '-c', code % [[str(a) for a in v] for v in verbs]], capture_output=True,
                       text=True, timeout=600)
    assert r.returncode==0, (r.stdout, r.stderr)
    return r.stdout

VERBS = 'info tile pretrain embed train knn evaluate predict attend report status view export import demo'.split()

def test_help_lists_every_verb():
    out = hipt('--help').stdout
    assert 'not for diagnosis' in out
    for verb in VERBS: assert re.search(rf'^\s+{verb}\s+\S', out, re.M), verb

@pytest.mark.parametrize('verb', VERBS)
def test_every_verb_explains_itself(verb):
    r = hipt(verb, '--help')
    assert r.returncode==0 and 'Usage' in r.stdout
    for line in re.findall(r'^\s+(--[a-z0-9-]+.*)$', r.stdout, re.M):
        assert len(line.split())>1, f'{verb}: no help for {line}'

@pytest.fixture(scope='module')
def phantom(tmp_path_factory):
    from hipt_nb.phantom import make_slide
    d = tmp_path_factory.mktemp('slides')
    make_slide(d/'a.tif', label='glandular', seed=1, size=1024)
    return d/'a.tif'

def fails(text, *args):
    r = hipt(*args)
    lines = r.stderr.strip().splitlines()
    assert r.returncode!=0, r.stdout
    assert len(lines)==1 and lines[0].startswith('hipt: ') and text in lines[0], r.stderr

def test_missing_file(tmp_path): fails('does not exist', 'info', tmp_path/'nowhere.svs')
def test_empty_folder(tmp_path): fails('no slides in folder', 'tile', tmp_path, '--out', tmp_path/'run')
def test_unknown_tissue_preset(tmp_path, phantom):
    fails("'nope'", 'tile', phantom, '--out', tmp_path/'run', '--tissue', 'nope')
def test_unknown_pyramid_preset(tmp_path, phantom):
    fails("'nope'", 'pretrain', phantom, '--out', tmp_path/'run', '--preset', 'nope')
def test_unknown_model(tmp_path, phantom):
    fails('hipt-4k:random', 'embed', phantom, '--out', tmp_path, '--model', 'nope')
def test_no_model_says_which_there_are(tmp_path, phantom):
    fails('hipt-tiny:random', 'embed', phantom, '--out', tmp_path)
def test_no_run_folder(tmp_path, phantom):
    fails('no run folder', 'embed', phantom, '--out', tmp_path/'none', '--model', 'hipt-tiny:random')

def test_folder_that_cannot_be_written(tmp_path, phantom):
    (tmp_path/'file').touch()
    fails('cannot write to output folder', 'tile', phantom, '--out', tmp_path/'file'/'run')

def test_manifest_without_label(tmp_path, phantom):
    (tmp_path/'m.csv').write_text(f'path\n{phantom}\n')
    fails("no column 'label'", 'train', tmp_path/'m.csv', '--out', tmp_path)

def test_file_that_is_no_slide(tmp_path):
    (tmp_path/'a.svs').write_text('hello')
    fails('is not a slide or image', 'tile', tmp_path/'a.svs', '--out', tmp_path/'run')
    assert 'is not a slide or image' in (tmp_path/'run'/'log.csv').read_text()

def test_a_broken_slide_does_not_stop_the_rest(tmp_path, phantom):
    (tmp_path/'b.tif').write_bytes(phantom.read_bytes()[:2000])
    r = hipt('tile', phantom, tmp_path/'b.tif', '--out', tmp_path/'run', '--region-size', 512)
    assert r.returncode==0 and '1 done, 1 failed' in r.stdout, r.stderr
    assert 'b,tile,failed' in (tmp_path/'run'/'log.csv').read_text()

def test_a_step_that_made_nothing_pins_nothing(tmp_path, phantom):
    fails('2.00 times finer', 'tile', phantom, '--out', tmp_path/'run', '--mpp', .25, '--region-size', 512)
    r = hipt('tile', phantom, '--out', tmp_path/'run', '--mpp', .5, '--region-size', 512)
    assert r.returncode==0 and '1 done' in r.stdout, r.stderr
    fails('--redo', 'tile', phantom, '--out', tmp_path/'run', '--mpp', 1, '--region-size', 512)
    fails('unknown recipe', 'pretrain', phantom, '--out', tmp_path/'run', '--preset', 'hipt-tiny', '--recipe', 'nope')

def test_the_readmes_road(tmp_path):
    "The µm per pixel of a slide that does not say are given once, when it is tiled; the run's only model is found"
    from PIL import Image
    from hipt_nb.phantom import make_slide
    from hipt_nb.slide import Slide
    make_slide(tmp_path/'a.tif', label='glandular', seed=1, size=1024)
    with Slide(tmp_path/'a.tif') as s: Image.fromarray(s.read(0, 0, 1024, 1024)).save(tmp_path/'Doe-John.png')
    (tmp_path/'m.csv').write_text('path,slide_id\nDoe-John.png,S1\n')
    run, m = tmp_path/'run', tmp_path/'m.csv'
    fails('--slide-mpp', 'tile', m, '--out', run, '--region-size', 512)
    road = (['tile', m, '--region-size', 512, '--slide-mpp', .5],
            ['pretrain', m, '--preset', 'hipt-tiny', '--recipe', 'small', '--samples1', 16, '--samples2', 4,
             '--anyway'],
            ['embed', m], ['attend', m], ['export', m], ['report', m])
    walk(*([*verb, '--out', run] for verb in road), ['view', run, '--static', tmp_path/'pages'])
    made = {p.relative_to(run).as_posix() for p in run.rglob('*') if p.is_file()}
    assert {'tiles/S1.h5', 'features/hipt-tiny/S1.h5', 'maps/hipt-tiny/S1.jpg', 'export/S1.geojson', 'index.html',
            'run.json', 'log.csv'} <= made
    assert (tmp_path/'pages'/'S1'/'tiles'/'0'/'0_0.jpg').exists()
    for p in [run/'index.html', *(tmp_path/'pages').rglob('*.js*'), *(tmp_path/'pages').rglob('*.html'),
              *(run/'export').iterdir()]:
        assert 'Doe-John' not in p.read_text(errors='replace'), p

def test_attend_writes_for_other_programs(tmp_path):
    "All exports of attention; the map lies on the slide to one pixel, in OpenSlide as in tifffile"
    import cv2, json, numpy as np, openslide, pandas as pd, tifffile
    from hipt_nb.phantom import make_slide, mask_path
    from hipt_nb.scene import MASK_CLASSES
    from hipt_nb.slide import Slide
    from hipt_nb.tiling import read_tiles
    make_slide(tmp_path/'a.tif', label='glandular', seed=1, size=1536)
    run, truth = tmp_path/'run', tmp_path/'truth'
    truth.mkdir()
    cv2.imwrite(str(truth/'a.png'),
                255*(cv2.imread(str(mask_path(tmp_path/'a.tif')), 0)>=MASK_CLASSES['gland']).astype(np.uint8))
    out = walk(['tile', tmp_path/'a.tif', '--region-size', 512, '--out', run],
               ['embed', tmp_path/'a.tif', '--model', 'hipt-tiny:random', '--out', run],
               ['attend', tmp_path/'a.tif', '--model', 'hipt-tiny:random', '--shifts', 4, '--truth', truth,
                '--ome-tiff', '--geojson', 1, '--sheets', '--out', run])
    assert 'attend: files: 1 done' in out and 'agreement with annotations' in out
    maps = run/'maps'/'hipt-tiny-random'
    assert json.loads((run/'run.json').read_text())['attend/hipt-tiny-random']['params']['offsets']==[0, 128, 256, 384]
    assert (maps/'sheets'/'a-patches.jpg').stat().st_size > 10_000
    table = pd.read_csv(maps/'truth.csv')
    assert {'model','random weights','shuffled','darkness'}==set(table.scores)
    assert {'patches','tokens of region 1'} <= set(table.level) and table.auc.between(0, 1).all()

    tiles = read_tiles(run/'tiles'/'a.h5')
    ome = maps/'a.ome.tif'
    with Slide(tmp_path/'a.tif') as slide, openslide.OpenSlide(ome) as o, tifffile.TiffFile(ome) as t:
        image = slide.read(0, 0, *slide.dimensions).astype(int)
        assert o.dimensions==slide.dimensions
        assert float(o.properties['openslide.mpp-x'])==pytest.approx(slide.mpp, rel=1e-4)
        page, levels = np.asarray(o.read_region((0, 0), 0, o.dimensions).convert('RGB')).astype(int), t.series[0].levels
        assert f'PhysicalSizeX="{slide.mpp:g}' in t.ome_metadata
        assert [l.shape[:2] for l in levels]==[(1536>>k, 1536>>k) for k in range(len(levels))]
        assert max(levels[-1].shape)<=256
        np.testing.assert_array_equal(levels[0].asarray(), page)
    coloured = np.abs(page-image).max(-1) > 2
    xs, ys = (v[tiles.mask()] for v in tiles.xy())
    want = np.zeros_like(coloured)
    for x,y in zip(xs, ys): want[y:y+256, x:x+256] = True
    edge = cv2.dilate(want.astype(np.uint8), np.ones((3, 3)))>cv2.erode(want.astype(np.uint8), np.ones((3, 3)))
    assert (coloured==want)[~edge].mean() > .995 and 0 < want.mean() < 1  # a colour may equal the tissue under it
    cells = json.loads((maps/'a.geojson').read_text())['features']
    assert 0 < len(cells) < len(tiles)*4
    assert all(f['properties']['measurements']['patches, mean of heads, relative'] > 1 for f in cells)
    corners = {tuple(map(int, np.min(f['geometry']['coordinates'][0], 0))) for f in cells}
    assert corners <= {(int(a), int(b)) for a,b in zip(tiles.xy()[0].ravel(), tiles.xy()[1].ravel())}

def test_predict_refuses_regions_of_another_size(tmp_path):
    "Tokens of 512-px regions have the shape of those of 1024 px, and mean something else"
    import numpy as np
    from hipt_nb.features import Features, write_features
    from hipt_nb.run import Run
    rng = np.random.default_rng(0)
    made_by = dict(encoder_name='toy', level1_sha256='a', level2_sha256='b', mean=[.5]*3, std=[.5]*3,
                   precision='float32', mpp=.5, slide_mpp=.5, patch_size=256, min_tissue=.1, sizes=[256, 4096])
    for name, size in (('small', 512), ('large', 1024)):
        for i in range(8):
            x, ones = rng.normal(size=(3, 2, 2, 8)), np.ones((3, 2, 2), np.float16)
            f = Features(f's{i}', x.astype(np.float16), x.mean((1, 2)).astype(np.float32), np.zeros((3, 2), int), ones,
                         made_by | dict(region_size=size))
            write_features(Run(tmp_path/name).features('toy', f's{i}'), f)
    m = tmp_path/'m.csv'
    for i in range(8): (tmp_path/f's{i}.svs').touch()
    rows = [f's{i}.svs,s{i},p{i},{"ab"[i%2]}' for i in range(8)]
    m.write_text('\n'.join(['path,slide_id,patient,label', *rows, '']))
    walk(['train', m, '--out', tmp_path/'large', '--folds', 2, '--epochs', 1, '--device', 'cpu'])
    fails('region_size is 512, the model was trained on 1024', 'predict', m, '--out', tmp_path/'small',
          '--trained', tmp_path/'large'/'models'/'slide'/'toy')

def stopped(*args):
    "Ctrl-C as the second step begins: one line, and what was made is kept"
    p = subprocess.Popen([sys.executable, '-u', '-c', 'from hipt_nb.cli import main; main()', *map(str, args)],
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for line in p.stdout:
        if line.startswith('[2/'): p.send_signal(signal.SIGINT); break
    err = p.communicate(timeout=120)[1].strip().splitlines()
    assert p.returncode==130 and len(err)==1 and 'the same command goes on' in err[0], err

def home_page_code(folder):
    "The lines of Python on the home page, run as they are written there, beside the run that the demo left behind"
    import json
    from pathlib import Path
    cells = json.loads((Path(__file__).parents[1]/'nbs'/'index.ipynb').read_text())['cells']
    blocks = [re.search(r'```python\n(from hipt_nb.all.*?)```', ''.join(c['source']), re.S) for c in cells]
    code = next(b[1] for b in blocks if b)
    assert len([line for line in code.splitlines() if line.strip()])<=8, code
    r = subprocess.run([sys.executable, '-c', code], cwd=folder, capture_output=True, text=True, timeout=300)
    assert r.returncode==0, r.stderr
    assert re.search(r'\(\d+, 4, 4, 96\)', r.stdout) and 'prob_mingled' in r.stdout, r.stdout

def predicted_as_evaluated(out):
    "Slides of the cross-validation get what evaluation judged: the same network, temperature and threshold"
    import numpy as np, pandas as pd
    from hipt_nb.trained import Trained
    path = out/'predictions'/'hipt-tiny.csv'
    assert path.read_text()==(out/'predictions.csv').read_text()
    table = pd.read_csv(path).set_index('slide_id')
    judged = Trained(out/'models'/'slide'/'hipt-tiny').judged.set_index('slide_id').loc[table.index]
    assert (table.fold==judged.fold).all() and (table.pred==judged.pred).all() and not table.seen_in_training.any()
    np.testing.assert_allclose(table.filter(like='prob_'), judged.filter(like='prob_'), atol=1e-5)

def times(out): return {p: p.stat().st_mtime_ns for p in out.rglob('*') if p.suffix in ('.h5', '.tif', '.safetensors')}

def test_quick_demo_and_again(tmp_path):
    "The whole road, stopped on the way; the same command goes on from there, and a third walk finds everything done"
    out = tmp_path/'demo'
    if os.name!='nt':  # Windows has no SIGINT to send to one process
        stopped('demo', '--quick', '--out', out)
        slides = times(out/'cohort')
        assert len(slides)==12 and not list(out.rglob('*.safetensors'))
    first = hipt('demo', '--quick', '--out', out)
    assert first.returncode==0, first.stderr
    if os.name!='nt': assert slides==times(out/'cohort')
    assert f"Open {out/'index.html'}" in first.stdout.splitlines()[-1]
    page = (out/'index.html').read_text()
    for word in ('Slides', 'Scores', 'Attention', 'Pretraining', 'mean of patches', 'hipt-tiny-random',
                 'hipt-tiny-dino-alone', 'random level 2', 'of other patients, without labels (inductive)',
                 'Right and wrong', 'hipt train models/slide/hipt-tiny/manifest.csv --out . --encoder hipt-tiny'):
        assert word in page, word
    assert page.count('<img') >= 12+1+1+1 and str(tmp_path) not in page
    files, cohort = times(out), out/'cohort'/'manifest.csv'
    again = walk(['demo', '--quick', '--out', out], ['view', out, '--model', 'hipt-tiny', '--static', tmp_path/'pages'],
                 ['predict', cohort, '--out', out, '--encoder', 'hipt-tiny'])
    assert files==times(out)
    listed = (tmp_path/'pages'/'slides.js').read_text()
    # the slide's own class, the one predicted for it, and how probable
    told = r'"label": "(mingled|zoned)", "prediction": "predicted (mingled|zoned) \(0\.\d\d\), held out"'
    assert re.search(told, listed), listed
    assert 'predict: 12 slides (12 by one network)' in again
    predicted_as_evaluated(out)
    home_page_code(tmp_path)
    more = walk(['train', cohort, '--out', out, '--encoder', 'hipt-tiny', '--folds', 2, '--level2', 'tuned',
                 '--by-patient', '--epochs', 1, '--name', 'tuned'],
                ['knn', cohort, '--out', out, '--encoder', 'hipt-tiny', '--folds', 2])
    assert '10 patients tested in' in more and re.search(r'AUC \d\.\d\d \(', more), more
    (out/'cohort'/'new.csv').write_text(cohort.read_text().replace(',mingled,', ',unheard of,'))
    fails("label 'unheard of'", 'predict', out/'cohort'/'new.csv', '--out', out, '--encoder', 'hipt-tiny', '--trained',
          out/'models'/'slide'/'tuned')
    fails('do not belong to model', 'predict', cohort, '--out', out, '--encoder', 'hipt-tiny-random', '--trained',
          out/'models'/'slide'/'hipt-tiny')

def test_features_alone_are_enough(tmp_path):
    "No slide and no encoder, only features of patches: from files of another tool to predictions, maps and a report"
    import json, numpy as np, pandas as pd
    from hipt_nb.core import read_h5
    from hipt_nb.features import read_features
    from hipt_nb.foreign import toy_flat
    from hipt_nb.hipt import HIPT
    run, m, files = tmp_path/'run', tmp_path/'m.csv', tmp_path/'files'
    files.mkdir()
    for i in range(12):
        f = toy_flat(i)
        np.savez(files/f'{f.slide_id}.npz', features=f.x, coords=f.coords, side=f.side, encoder_name='uni2-h')
    pd.DataFrame(dict(path=[f'gone/s{i:02}.svs' for i in range(12)], patient=[f'p{i}' for i in range(12)],
                      label=[('mingled', 'apart')[i%2] for i in range(12)])).to_csv(m, index=False)
    name, few = 'uni2-h-hipt-tiny', ['--folds', 2, '--epochs', 1]
    of = ['--encoder', name]
    road = (['import', m, '--from', files, '--features', '--grid', 8, '--slide-mpp', .25, '--encoder', 'uni2-h'],
            ['pretrain', m, '--preset', 'hipt-tiny', '--level', 2, '--encoder', 'uni2-h', '--recipe', 'small',
             '--samples2', 48, '--batch-size', 16],
            ['embed', m], ['knn', m, *of, '--folds', 2, '--k', 1],
            *(['train', m, *of, *few, '--model', k] for k in ('hipt', 'mean', 'abmil', 'hipt_n')),
            ['train', m, *of, *few, '--level2', 'frozen'],
            ['evaluate', m, '--resamples', 20], ['predict', m, *of], ['attend', m], ['report', m])
    out = walk(*([*verb, '--out', run] for verb in road))
    assert 'import: 12 done' in out and f'embed {name}: 12 done' in out and 'predict: 12 slides' in out, out
    pyramid = HIPT.from_pretrained(run/'models'/name)
    assert not pyramid.held and pyramid.config['level1']==dict(named='uni2-h', embed_dim=32, sha256='uni2-h')
    of_uni, above = (read_features(run/'features'/n/'s03.h5') for n in ('uni2-h', name))
    assert above.region.shape==(4, 96) and (above.patch==of_uni.patch).all()
    maps, _ = read_h5(run/'maps'/name/'s03.h5', 'maps', 'attend')
    assert 'token' not in maps and {'patch', 'region'} <= set(maps) and not list(run.rglob('*.jpg'))
    assert len(pd.read_csv(run/'predictions.csv'))==12 and '4 regions' in (run/'index.html').read_text()
    models = set(pd.read_csv(run/'evaluation.csv').model)
    assert {f'HIPT, {name} features', f'ABMIL, {name} features', f'mean of patches, {name}'} < models, models
    assert json.loads((run/'run.json').read_text())[f'pretrain/{name}-level2']['params']['samples']==48
    assert 'view: 12 pages' in walk(['view', run, '--static', tmp_path/'pages'])  # where the patches are
