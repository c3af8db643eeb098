"Tissue and tiling where slides are damaged, empty, odd or many"
import contextlib, io, json, os, signal, subprocess, sys, time
from pathlib import Path
import cv2, numpy as np, pytest, tifffile
from hipt_nb.core import HIPTError
from hipt_nb.cohort import read_manifest
from hipt_nb.run import Run
from hipt_nb.phantom import make_slide
from hipt_nb.slide import Slide
from hipt_nb.areas import read_geojson, write_geojson
from hipt_nb.artefacts import blur_mask
from hipt_nb.tissue import Tissue, segment
from hipt_nb.tiling import grid_starts, iter_regions, read_tiles, tile_cohort, tile_slide

@pytest.fixture(scope='module')
def phantom(tmp_path_factory): return make_slide(tmp_path_factory.mktemp('slide')/'p.tif', seed=3, size=2048)

def spoil_tiles(path, out, level):
    "A copy with the JPEG data of one level overwritten"
    data = bytearray(Path(path).read_bytes())
    with tifffile.TiffFile(path) as t: places = list(zip(t.pages[level].dataoffsets, t.pages[level].databytecounts))
    for o,n in places: data[o:o+n] = bytes(n)
    Path(out).write_bytes(data)
    return out

@pytest.mark.parametrize('level', [0, 1])
def test_a_level_that_does_not_decode_fails_one_slide_and_leaves_nothing(phantom, tmp_path, level, capsys):
    spoil_tiles(phantom, tmp_path/'bad.tif', level)
    run, m = Run(tmp_path/'run'), read_manifest([tmp_path/'bad.tif', phantom])
    counts = tile_cohort(run, m, region_size=512, blur='full')
    assert counts['failed'] <= 1 and counts['done'] >= 1 and (tmp_path/'run'/'tiles'/'p.h5').exists()
    if counts['failed']:
        assert "slide 'bad' cannot be read" in run.read_log()['bad','tile'][1]
        assert not list((tmp_path/'run'/'tiles').glob('bad*'))
    else:  # tissue did not need that level: reading regions must say so
        tiles = read_tiles(run.tiles('bad'))
        with tiles.open(tmp_path/'bad.tif') as s, pytest.raises(HIPTError, match='bad'): list(iter_regions(s, tiles))
    assert not list((tmp_path/'run').rglob('.tmp-*'))

def test_processes_give_the_same_files_as_one(phantom, tmp_path):
    for i in range(3): (tmp_path/f's{i}.tif').write_bytes(phantom.read_bytes())
    (tmp_path/'text.svs').write_text('no slide')
    m = read_manifest(tmp_path)
    with contextlib.redirect_stderr(io.StringIO()):
        a, b = (tile_cohort(Run(tmp_path/f'run{n}'), m, workers=n, region_size=512) for n in (1, 2))
    assert a == b == dict(done=3, skipped=0, failed=1)
    for p in sorted((tmp_path/'run1'/'tiles').iterdir()):
        assert p.read_bytes() == (tmp_path/'run2'/'tiles'/p.name).read_bytes(), p.name

@pytest.mark.skipif(os.name=='nt', reason='process groups')
def test_interrupted_in_the_middle_of_a_cohort(tmp_path):
    "Ctrl-C in several processes: one line, code 130, whole files, no process left; the same command goes on"
    for i in range(24):
        path = tmp_path/'in'/f's{i}.tif'
        if i: path.write_bytes((tmp_path/'in'/'s0.tif').read_bytes())
        else: make_slide(path, seed=0, size=1024)
    command = [sys.executable, '-c', 'from hipt_nb.cli import main; main()', 'tile', str(tmp_path/'in'), '-o',
               str(tmp_path/'run'), '--region-size', '512', '--workers', '2']
    p = subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while p.poll() is None and len(list((tmp_path/'run').glob('tiles/*.h5'))) < 2: time.sleep(.02)
    os.killpg(p.pid, signal.SIGINT)
    _, err = p.communicate(timeout=60)
    if p.returncode==0: pytest.skip('it was faster than the signal')
    # Python may say 'Exception ignored in' for a worker that is ended at its last line of code
    assert p.returncode==130 and 'hipt: stopped' in err.strip().splitlines()[-1], err
    assert not list((tmp_path/'run').rglob('.tmp-*'))
    for f in (tmp_path/'run'/'tiles').glob('*.h5'): read_tiles(f)
    res = subprocess.run(command, capture_output=True, text=True)
    assert res.returncode==0 and len(list((tmp_path/'run'/'tiles').glob('*.h5')))==24, res.stderr
    log = (tmp_path/'run'/'log.csv').read_text().splitlines()
    assert len(log)==25

def test_glass_goes_through_every_verb(phantom, tmp_path):
    "A slide without tissue gets valid tiles and a warning, and every later step passes over it"
    from hipt_nb.attend import attend_cohort
    from hipt_nb.core import logged
    from hipt_nb.embed import embed_cohort
    from hipt_nb.features import load_bags
    from hipt_nb.hipt import create_hipt
    from hipt_nb.samples import PatchSource
    from hipt_nb.report import write_report
    from hipt_nb.tiling import tile_table, with_regions
    cv2.imwrite(str(tmp_path/'glass.png'), np.full((1500,1500,3), 240, np.uint8))
    run, m = Run(tmp_path/'run'), read_manifest([tmp_path/'glass.png', phantom]).assign(slide_mpp=.5, label='a')
    with logged() as said:
        assert tile_cohort(run, m, region_size=1024)['done'] == 2
        hipt = create_hipt('hipt-tiny').eval()
        assert embed_cohort(run, m, hipt) == dict(done=1, skipped=1, failed=0)
        left = with_regions(run, m)
        sources = [(r.path, run.tiles(r.slide_id)) for r in m.itertuples()]
        assert len(PatchSource(sources)) == tile_table(run, m).patches.sum()
        assert len(load_bags(run, left, hipt.name)) == 1
        assert attend_cohort(run, m, hipt, top=1) == dict(done=1, skipped=1, failed=0)
        assert 'glass' in write_report(run, m).read_text()
    assert sum("'glass'" in line for line in said) >= 3 and run.read_log()['glass','tile'][0]=='done'
    t = read_tiles(run.tiles('glass'))
    assert len(t)==0 and t.mask().shape==(0,4,4) and (tmp_path/'run'/'tiles'/'glass.jpg').stat().st_size>0

@pytest.mark.parametrize('length', [1, 300, 4096, 4100, 9999, 100_000])
@pytest.mark.parametrize('overlap', [0, 64, 500])
def test_regions_cover_the_slide(length, overlap):
    "Every pixel but a sliver below 5 % of a step lies in a region, and every region begins on the slide"
    size = 966.04
    xs = grid_starts(length, size, size-overlap)
    assert xs[0]==0 and xs[-1]<length and xs[-1]+size > length-.06*(size-overlap)
    assert (np.abs(np.diff(xs)-(size-overlap))<=1).all() and (xs==np.round(np.arange(len(xs))*(size-overlap))).all()

def test_patches_beyond_the_edge_are_never_tissue(phantom):
    with Slide(phantom) as s:
        everything = Tissue(np.ones((300,300), bool), 7.)   # reaches beyond the slide
        for size in (256, 1024, 4096):
            t = tile_slide(s, everything, region_size=size, patch_size=256 if size>256 else 64, min_tissue=0,
                           blur='none')
            x, y = t.xy()
            assert not t.mask()[(x>=2048) | (y>=2048)].any() and t.mask()[(x<2048) & (y<2048)].all()

def test_single_level_and_pyramid_find_the_same_tissue(phantom, tmp_path):
    with Slide(phantom) as a, Slide(phantom) as b:
        b.levels = b.levels[:1]
        one, two = segment(a).mask, segment(b).mask
    assert (one&two).sum()/(one|two).sum() > .97

def leica(path, image, offset_um, mpp=.5):
    "A Leica SCN file: OpenSlide gives it `bounds-*`, for the scanned part lies somewhere on a larger slide"
    h, w = image.shape[:2]
    nm = lambda px: round(px*mpp*1000)
    x, y = (round(o*1000) for o in offset_um)
    xml = f'''<?xml version="1.0"?><scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01" uuid="urn:uuid:0">
<collection name="c" uuid="urn:uuid:1" sizeX="{nm(4*w)}" sizeY="{nm(4*h)}">
<image name="i" uuid="urn:uuid:2"><creationDate>2020-01-01T00:00:00Z</creationDate><device model="m" version="1"/>
<pixels sizeX="{w}" sizeY="{h}"><dimension sizeX="{w}" sizeY="{h}" r="0" ifd="0"/></pixels>
<view sizeX="{nm(w)}" sizeY="{nm(h)}" offsetX="{x}" offsetY="{y}" spacingZ="0"/>
<scanSettings><objectiveSettings><objective>20</objective></objectiveSettings>
<illuminationSettings><numericalAperture>0.4</numericalAperture><illuminationSource>brightfield</illuminationSource>
</illuminationSettings></scanSettings></image></collection></scn>'''
    with tifffile.TiffWriter(path, bigtiff=True) as t:
        t.write(image, tile=(256,256), photometric='rgb', compression='jpeg', description=xml, metadata=None,
                resolution=(1e4/mpp,)*2, resolutionunit='CENTIMETER')
    return path

def test_geojson_of_a_file_with_bounds(phantom, tmp_path):
    "QuPath counts from the corner of the scanned part: subtracted on writing, added on reading"
    with Slide(phantom) as s: image = s.read(0, 0, 2048, 2048)
    with Slide(leica(tmp_path/'a.scn', image, (640., 320.))) as s:
        x, y, w, h = s.bounds
        assert (x, y, w, h) == (1280, 640, 2048, 2048)
        tissue = segment(s)
        path = write_geojson(tmp_path/'t.geojson', tissue, s)
        ring = np.concatenate([np.array(f['geometry']['coordinates'][0])
                               for f in json.loads(path.read_text())['features']])
        assert ring.min()>=-16 and ring.max()<=2048+16   # within the scanned part, from its corner
        back = read_geojson(path, s).mask
        assert (back&tissue.mask).sum()/(back|tissue.mask).sum() > .98
        tiles = tile_slide(s, region_size=512)
        assert len(tiles) and (tiles.coords[:,0]>=1024).all()   # level-0 pixels of the file, from its own corner

def test_blur_by_samples_is_near_the_full_check(tmp_path):
    with Slide(make_slide(tmp_path/'p.tif', seed=1, size=4096)) as s: image = s.read(0, 0, 4096, 4096)
    image[:,2048:] = cv2.GaussianBlur(image, (0,0), 5)[:,2048:]
    cv2.imwrite(str(tmp_path/'half.png'), image[...,::-1])
    with Slide(tmp_path/'half.png', slide_mpp=.5) as s:
        t = segment(s)
        full, some = (blur_mask(s, tissue=t, every=n).mask for n in (1, 4))
    assert (full!=some).mean()<.2 and full[:,20:].sum()>100 and some[:,20:].sum()>.8*full[:,20:].sum()
    assert some[:,:12].mean()<.05

def test_closing_early_leaves_no_thread(phantom):
    import threading
    with Slide(phantom) as s:
        t = tile_slide(s, region_size=256, patch_size=256, blur='none')
        before, it = threading.active_count(), iter_regions(s, t, workers=3)
        next(it); it.close()
        assert threading.active_count()==before

@pytest.mark.parametrize('preset', ['hipt', 'tcga', 'biopsy', 'resection'])
def test_the_same_mask_as_clam(preset, tmp_path):
    "Pixel by pixel, with pieces and holes of many sizes at CLAM's own scale; `max_share`, which CLAM lacks, is off"
    sys.path.insert(0, str(Path(__file__).parent/'golden'))
    from make_tissue import picture
    image = picture()
    packed = np.load(Path(__file__).parent/'golden'/'tissue.npz')[preset]
    theirs = np.unpackbits(packed).reshape(image.shape[:2]).astype(bool)
    cv2.imwrite(str(tmp_path/'p.png'), image[...,::-1])
    with Slide(tmp_path/'p.png', slide_mpp=8.) as s: ours = segment(s, preset, max_share=1).mask
    assert (ours==theirs).all()
