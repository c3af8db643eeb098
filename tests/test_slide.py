"Slides that are broken in every way: an error that names them, never a crash, a hang or made-up pixels"
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

DATA = Path(os.environ.get('HIPT_DATA', 'missing'))
real = pytest.mark.skipif(not DATA.is_dir(), reason='set HIPT_DATA to the folder of real slides (see CONTRIBUTING.md)')

# One process for many files: what it prints says how each ended, and a file that kills or stalls it is found by its
# absence
probe = """
import sys, warnings
warnings.simplefilter('ignore')
from hipt_nb.core import HIPTError
from hipt_nb.slide import Slide
for path in sys.stdin.read().splitlines():
    try:
        with Slide(path, .5) as s:
            s.thumbnail(128)
            for x,y,mpp in [(0,0,.5), (100,60,1.3), (s.dimensions[0]-90, s.dimensions[1]-90, .5)]:
                assert s.read(x, y, 128, 128, mpp).shape==(128,128,3)
        print('read', flush=True)
    except HIPTError as e:
        named = path in str(e) or s_name(path) in str(e)
        print('refused' if named else f'no name in: {e}', flush=True)
    except BaseException as e: print(f'{type(e).__name__}: {e}', flush=True)
""".replace('for path in', "s_name = lambda p: p.rsplit('/',1)[-1].rsplit('.',1)[0]\nfor path in", 1)


def outcomes(paths, seconds=120):
    "How opening and reading each file ended"
    try:
        res = subprocess.run([sys.executable, '-c', probe], input='\n'.join(map(str, paths)), capture_output=True,
                             text=True, timeout=seconds)
    except subprocess.TimeoutExpired as e: pytest.fail(f"stalls on {paths[len((e.stdout or b'').splitlines())]}")
    said = res.stdout.splitlines()
    assert len(said)==len(paths), f'process died on {paths[len(said)]}: {res.stderr[-500:]}'
    return said


def image(h=500, w=700, seed=0):
    import cv2
    noise = np.random.default_rng(seed).integers(0, 256, (h//8, w//8, 3), dtype=np.uint8)
    return cv2.resize(noise, (w, h), interpolation=cv2.INTER_CUBIC)


@pytest.fixture(scope='module')
def slides(tmp_path_factory):
    "A generic pyramid and one that looks like Aperio's, both in JPEG"
    folder, a = tmp_path_factory.mktemp('slides'), image()
    aperio = 'Aperio Image Library v12\n700x500 [0,0 700x500] (240x240) JPEG/RGB Q=70|AppMag = 20|MPP = 0.5000'
    for name, about in [('generic.tif', None), ('aperio.svs', aperio)]:
        with tifffile.TiffWriter(folder/name) as t:
            for i in range(2):
                t.write(np.ascontiguousarray(a[::2**i, ::2**i]), tile=(240,240), photometric='rgb', compression='jpeg',
                        subfiletype=int(i>0), description=about, metadata=None)
    return folder


def mutations(path, n, out, seed=0):
    "`n` copies with one byte flipped, half of them in the first kilobyte or after the pixels, where the structure is"
    data, rng, res = path.read_bytes(), np.random.default_rng(seed), []
    with tifffile.TiffFile(path) as t: ends = max(o+c for p in t.pages for o,c in zip(p.dataoffsets, p.databytecounts))
    structure = [*range(0, 1024), *range(ends, len(data))]
    for i in range(n):
        at = int(rng.choice(structure)) if i%2 else int(rng.integers(len(data)))
        b = bytearray(data); b[at] ^= int(rng.integers(1, 256))
        res.append(out/f'{path.stem}-{at}-{i}{path.suffix}'); res[-1].write_bytes(b)
    return res


def check_mutations(slides, tmp_path, n, batch=50):
    paths = [p for name in ('generic.tif','aperio.svs') for p in mutations(slides/name, n//2, tmp_path)]
    said = [o for i in range(0, len(paths), batch) for o in outcomes(paths[i:i+batch])]
    assert set(said) <= {'read','refused'}, [(p.name,o) for p,o in zip(paths,said) if o not in ('read','refused')]
    assert 'read' in said


def check_cuts(path, tmp_path, n):
    data = path.read_bytes()
    paths = [tmp_path/f'cut{i}{path.suffix}' for i in range(n)]
    for i,p in enumerate(paths): p.write_bytes(data[:len(data)*i//n])
    said = outcomes(paths)
    assert set(said) <= {'read','refused'}, said
    assert said[0]=='refused'  # nothing at all


def test_flipped_bytes(slides, tmp_path): check_mutations(slides, tmp_path, 20)
def test_truncated(slides, tmp_path): check_cuts(slides/'aperio.svs', tmp_path, 5)

@pytest.mark.faults
def test_many_flipped_bytes(slides, tmp_path): check_mutations(slides, tmp_path, 300)

@pytest.mark.faults
@pytest.mark.parametrize('name', ['generic.tif','aperio.svs'])
def test_truncated_at_20_points(slides, tmp_path, name): check_cuts(slides/name, tmp_path, 20)

@real
@pytest.mark.faults
@pytest.mark.parametrize('name', ['CMU-1-Small-Region.svs','tcga-cr-7395-01a-01-ts1.svs','fluorescence-7-levels.ndpi',
                                  'camelyon-jpeg.dcm','hgsc_nest.jpg'])
def test_real_files_truncated_at_20_points(tmp_path, name): check_cuts(DATA/name, tmp_path, 20)


def test_no_slides_at_all(tmp_path):
    (tmp_path/'empty.svs').touch()
    (tmp_path/'text.svs').write_text('hello')
    (tmp_path/'folder.svs').mkdir(); (tmp_path/'noise.tif').write_bytes(os.urandom(5000))
    (tmp_path/'noise.dcm').write_bytes(os.urandom(5000))
    names = 'empty.svs text.svs folder.svs noise.tif noise.dcm missing.svs'.split()
    assert outcomes([tmp_path/n for n in names]) == ['refused']*6


def test_a_tile_that_cannot_be_decoded(slides, tmp_path):
    "The rest of the slide can be read, that place is an error which says where"
    from hipt_nb.core import HIPTError
    from hipt_nb.slide import Slide
    with tifffile.TiffFile(slides/'aperio.svs') as t:
        offset, n = t.pages[0].dataoffsets[4], t.pages[0].databytecounts[4]
    data = bytearray((slides/'aperio.svs').read_bytes()); data[offset:offset+n] = bytes(n)
    (tmp_path/'bad.svs').write_bytes(data)
    with Slide(tmp_path/'bad.svs') as s:
        good = s.read(0, 0, 200, 200)
        with Slide(slides/'aperio.svs') as whole: assert (good==whole.read(0, 0, 200, 200)).all()
        with pytest.raises(HIPTError, match="'bad'.*x=250, y=250"): s.read(250, 250, 100, 100)


@real
@pytest.mark.parametrize('name', ['CMU-1-Small-Region.svs','tcga-cr-7395-01a-01-ts1.svs'])
def test_quick_reader_gives_openslides_pixels(name):
    "40 random windows of every level: equal on whole pixels and over the edge; between pixels both round"
    from hipt_nb.readers import open_file
    f, rng = open_file(DATA/name), np.random.default_rng(0)
    assert f.quick
    (W, H, _), edge = f.levels[0], 50
    for level,(_,_,d) in enumerate(f.levels):
        for _ in range(40):
            n = int(rng.integers(1, 300))
            x, y = (int(rng.integers(-edge, m)) if d==1 else int(rng.integers(0, m-n*d)) for m in (W, H))
            a, b = f.quick.pixels(x, y, level, n, n), np.asarray(f.handle.read_region((x, y), level, (n, n)))
            if d==1: assert (a==np.where(b[...,3:]>0, b[...,:3], 255)).all()
            else: assert np.abs(a.astype(int)-b[...,:3]).max()<=3
    f.close()


def test_equal_names_in_different_folders(tmp_path):
    from hipt_nb.core import HIPTError
    from hipt_nb.cohort import read_manifest
    for n in ('x/a.svs','y/a.svs'): (tmp_path/n).parent.mkdir(); (tmp_path/n).touch()
    with pytest.raises(HIPTError, match="id 'a'.*x/a.svs and .*y/a.svs"): read_manifest(tmp_path)


def test_finer_than_level_0_is_asked_for(slides, tmp_path):
    "A run says so once, and everything that opens the slide by its tiles knows it"
    from hipt_nb.cohort import read_manifest
    from hipt_nb.run import Run
    from hipt_nb.tiling import read_tiles, tile_cohort
    m, sizes = read_manifest(slides/'aperio.svs'), dict(region_size=256, patch_size=64, mpp=.25, min_region=0,
                                                        blur='none')
    refused, allowed = Run(tmp_path/'refused'), Run(tmp_path/'allowed')
    assert tile_cohort(refused, m, **sizes)['failed']==1 and '--upsample' in refused.read_log()['aperio','tile'][1]
    assert tile_cohort(allowed, m, upsample=True, **sizes)['done']==1
    tiles = read_tiles(allowed.tiles('aperio'))
    with tiles.open(slides/'aperio.svs') as s: assert tiles.mpp==.25 and tiles.read(s, 0).shape==(256,256,3)
    assert tile_cohort(allowed, m, **sizes)['skipped']==1  # what is finished does not depend on it
    assert tile_cohort(refused, m, upsample=True, **sizes)['done']==1  # the advice works in the same run


def test_truncated_files_are_reported_at_opening(tmp_path):
    "An interrupted copy whose directory is whole"
    from hipt_nb.core import HIPTError
    from hipt_nb.slide import Slide
    a = image()
    for layout in (dict(rowsperstrip=16), dict(tile=(128,128))):  # by tifffile, and by OpenSlide
        tifffile.imwrite(tmp_path/'whole.tif', a, photometric='rgb', compression='deflate', **layout)
        (tmp_path/'cut.tif').write_bytes((tmp_path/'whole.tif').read_bytes()[:-5000])
        with pytest.raises(HIPTError, match='cut.tif.*incomplete.*cut off at byte'): Slide(tmp_path/'cut.tif')


def test_broken_slides_leave_no_files(slides, tmp_path):
    "A cohort goes on past them; what they leave is a line in the log"
    from hipt_nb.cohort import read_manifest
    from hipt_nb.run import Run
    from hipt_nb.tiling import tile_cohort
    folder = tmp_path/'cohort'; folder.mkdir()
    data = (slides/'aperio.svs').read_bytes()
    with tifffile.TiffFile(slides/'aperio.svs') as t:
        offset, n = t.pages[0].dataoffsets[4], t.pages[0].databytecounts[4]
    dead = bytearray(data); dead[offset:offset+n] = bytes(n)
    for name, what in [('good', data), ('dead_tile', dead), ('half', data[:len(data)//2]), ('empty', b''),
                       ('text', b'hello')]:
        (folder/f'{name}.svs').write_bytes(what)
    run = Run(tmp_path/'run')
    counts = tile_cohort(run, read_manifest(folder), region_size=256, patch_size=64, min_region=0,
                         settings=dict(mpp=.5), blur='full')
    log = run.read_log()
    assert counts['failed']>=3 and log['good','tile'][0]=='done'
    assert all(name in log[name,'tile'][1] for name in ('half','empty','text','dead_tile')
               if log[name,'tile'][0]=='failed')
    left = {p.name.split('.')[0] for p in (tmp_path/'run'/'tiles').iterdir()}
    assert left=={k[0] for k,v in log.items() if v[0]=='done'}


@real
def test_one_slide_per_dicom_series(tmp_path):
    import openslide
    from hipt_nb.cohort import _series, find_slides
    for n in ('a.dcm','b.dcm'): shutil.copy(DATA/'camelyon-jpeg.dcm', tmp_path/n)
    assert [p.name for p in find_slides(tmp_path)]==['a.dcm']
    with openslide.OpenSlide(tmp_path/'a.dcm') as s:
        assert _series(tmp_path/'a.dcm')[1].decode().strip('\0 ')==s.properties['dicom.SeriesInstanceUID']


def test_a_slide_travels_to_another_process(slides):
    "Pickled while open, and carried over a fork"
    from multiprocessing import get_context
    from hipt_nb.slide import Slide
    s = Slide(slides/'aperio.svs', .5); want = s.read(10, 20, 64, 64)
    assert (pickle.loads(pickle.dumps(s)).read(10, 20, 64, 64)==want).all()
    if 'fork' in __import__('multiprocessing').get_all_start_methods():
        with get_context('fork').Pool(2) as pool:
            assert all((a==want).all() for a in pool.starmap(s.read, [(10,20,64,64)]*8))
    s.close()
