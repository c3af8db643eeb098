"What comes in: slides, folders, tables and masks as people have them, and advice that works when it is followed"
import json
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from test_cli import hipt

RNG = np.random.default_rng(0)


def picture(n=1100):
    a = np.full((n, n, 3), 244, np.uint8)
    a[100:-100, 100:-100] = np.clip([200, 120, 170] + RNG.normal(0, 20, (n-200, n-200, 3)), 0, 255)
    return a


def write(path, a=None, res=(20000, 20000), **kw):
    path.parent.mkdir(parents=True, exist_ok=True)
    layout = dict(photometric='rgb', tile=(256, 256), compression='deflate', resolution=res, resolutionunit=3)
    tifffile.imwrite(path, picture() if a is None else a, **layout | kw)
    return path


def tiled(out, *args, **sizes):
    "Tile in this process; the log's lines"
    from hipt_nb.cohort import read_manifest
    from hipt_nb.run import Run
    from hipt_nb.tiling import tile_cohort
    run = Run(out)
    tile_cohort(run, read_manifest(*args), **dict(region_size=512, blur='none', previews=False) | sizes)
    return {k: v for (k, _), v in run.read_log().items()}


def test_an_empty_patient_stops_learning_and_nothing_else(tmp_path):
    "Its sibling would be trained on"
    from hipt_nb.cohort import read_manifest
    from hipt_nb.core import HIPTError
    from hipt_nb.features import load_bags
    from hipt_nb.run import Run
    from hipt_nb.splits import make_folds
    (tmp_path/'m.csv').write_text('path,patient,label,site\n' + ''.join(
        f's{i}.tif,{"" if i==3 else f"P{i//2}"},{"ab"[i//2%2]},{"" if i==5 else "NA"}\n' for i in range(24)))
    m = read_manifest(tmp_path/'m.csv')
    for use in (lambda: make_folds(m, 2), lambda: load_bags(Run(tmp_path), m, 'x')):
        with pytest.raises(HIPTError, match='column patient is empty for slide s3: fill it in, or delete'): use()
    filled = m.assign(patient=m.patient.fillna('P1'))
    with pytest.raises(HIPTError, match='column site is empty for slide s5.*--by-site'):
        make_folds(filled, 2, by_site=True)
    assert len(make_folds(filled, 2)[0])==2
    assert len(make_folds(read_manifest(tmp_path/'m.csv').drop(columns='patient').assign(patient=m.slide_id), 2)[0])==2


def test_two_manifests_one_with_patients(tmp_path):
    from hipt_nb.cohort import check_filled, read_manifest
    from hipt_nb.core import HIPTError
    (tmp_path/'a.csv').write_text('path,patient\na.tif,P1\n')
    (tmp_path/'b.csv').write_text('path\nb.tif\n')
    m = read_manifest([tmp_path/'a.csv', tmp_path/'b.csv'])
    with pytest.raises(HIPTError, match='patient is empty for slide b'): check_filled(m, 'patient')


def test_ids_that_collide_between_manifests(tmp_path):
    from hipt_nb.core import HIPTError
    for site in 'AB': write(tmp_path/site/'s1.tif')
    tiled(tmp_path/'run', tmp_path/'A')
    with pytest.raises(HIPTError, match="slide_id 's1' is .*A/s1.tif"): tiled(tmp_path/'run', tmp_path/'B')
    os.rename(tmp_path/'A', tmp_path/'moved')  # the same file elsewhere is the same slide
    assert tiled(tmp_path/'run', tmp_path/'moved')['s1'][0]=='done'


def test_a_time_of_0_does_not_stop_tiling(tmp_path):
    write(tmp_path/'s.tif')
    (tmp_path/'m.csv').write_text('path,time,event\ns.tif,0,Dead\n')
    assert tiled(tmp_path/'run', tmp_path/'m.csv')['s'][0]=='done'


def test_a_spreadsheet(tmp_path):
    openpyxl = pytest.importorskip('openpyxl', reason="the extra 'tables' is not installed")
    from hipt_nb.cohort import read_manifest
    book = openpyxl.Workbook()
    for row in [('path', 'patient', 'slide_mpp'), (' a.svs ', 7, .5), (None, None, None), ('b.svs', 8, .25)]:
        book.active.append(row)
    book.save(tmp_path/'m.xlsx')
    m = read_manifest(tmp_path/'m.xlsx')
    assert m.patient.tolist()==['7', '8'] and m.slide_mpp.tolist()==[.5, .25] and Path(m.path[0]).name=='a.svs'


def test_a_spreadsheet_without_openpyxl(tmp_path, monkeypatch):
    from hipt_nb.cohort import read_manifest
    from hipt_nb.core import HIPTError
    monkeypatch.setitem(sys.modules, 'openpyxl', None)
    (tmp_path/'m.xlsx').write_bytes(b'PK')
    with pytest.raises(HIPTError, match=r"pip install 'hipt_nb\[tables\]'"): read_manifest(tmp_path/'m.xlsx')


def test_links_lead_to_the_same_run_again(tmp_path):
    "A blob named by its content, reached by a link with the slide's name"
    meta = dict(axes='YXS', PhysicalSizeX=.5, PhysicalSizeY=.5)
    write(tmp_path/'blob.ome.tif', ome=True, metadata=meta, resolution=None, resolutionunit=None)
    os.rename(tmp_path/'blob.ome.tif', tmp_path/'9f86')
    (tmp_path/'cache').mkdir()
    (tmp_path/'cache'/'case.ome.tif').symlink_to(tmp_path/'9f86')
    tiled(tmp_path/'run', tmp_path/'cache')
    from hipt_nb.run import Run
    with Run(tmp_path/'run').case('case') as case: assert case.slide.file.kind=='tifffile' and case.slide.mpp==.5


def test_a_run_inside_the_folder_of_slides(tmp_path):
    from PIL import Image
    for i in range(2): Image.fromarray(picture(700)).save(tmp_path/f's{i}.png')
    for _ in range(2): log = tiled(tmp_path/'run', tmp_path, slide_mpp=.5, previews=True)
    assert set(log)=={'s0', 's1'}


def test_what_a_file_is(tmp_path):
    from hipt_nb.core import HIPTError
    from hipt_nb.slide import Slide
    whole = write(tmp_path/'whole.tif').read_bytes()
    (tmp_path/'lfs.svs').write_text('version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n')
    (tmp_path/'page.svs').write_text('<!DOCTYPE html><html></html>')
    (tmp_path/'cut.tif').write_bytes(b'II*\0'+(5_000_000).to_bytes(4, 'little')+bytes(1000))
    (tmp_path/'short.tif').write_bytes(whole[:len(whole)//2])
    (tmp_path/'link.svs').symlink_to(tmp_path/'gone.svs')
    words = {'lfs.svs': 'Git LFS pointer.*git lfs pull', 'page.svs': 'a web page', 'link.svs': "a link to '.*gone.svs'",
             'cut.tif': 'cut off at byte 1,008 of at least 5,000,000', 'short.tif': 'cut off at byte'}
    for name, said in words.items():
        with pytest.raises(HIPTError, match=said) as e: Slide(tmp_path/name)
        assert 'damaged' not in str(e.value)


def test_what_cannot_be_opened_is_not_damaged(tmp_path, monkeypatch):
    "Locked, not permitted, on a disk that is gone: the file is whole, and is not made anew"
    import errno
    import h5py
    from hipt_nb.core import DamagedError, HIPTError, read_h5, write_h5
    from hipt_nb.embed import _kept
    path = tmp_path/'x.h5'
    write_h5(path, dict(x=[1]), {})
    def refuse(code): monkeypatch.setattr(h5py, 'File', lambda *a: (_ for _ in ()).throw(OSError(code, 'no')))
    for code, said in {errno.EAGAIN: 'another program has locked it', errno.EACCES: 'permission denied',
                       errno.ESTALE: 'stale', errno.EIO: 'try again'}.items():
        refuse(code)
        for read in (lambda: read_h5(path, 'features', 'embed'), lambda: _kept(path)):
            with pytest.raises(HIPTError, match=said) as e: read()
            assert not isinstance(e.value, DamagedError) and 'delete' not in str(e.value)
    monkeypatch.undo()
    path.write_bytes(b'noise')
    with pytest.raises(DamagedError): read_h5(path, 'features', 'embed')
    assert _kept(path) is None


def test_a_locked_file(tmp_path):
    "As another program holds it, through HDF5's own lock"
    fcntl = pytest.importorskip('fcntl')
    from hipt_nb.core import HIPTError, read_h5, write_h5
    path = tmp_path/'x.h5'
    write_h5(path, dict(x=[1]), {})
    with open(path, 'r+b') as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        with pytest.raises(HIPTError, match='another program has locked it'): read_h5(path, 'tiles', 'tile')


def test_what_the_user_says_goes_first(tmp_path):
    "Over a wrong file, in a cohort that goes on, and with pixels that are not square"
    for name, res in dict(tenfold=(400000, 400000), oblong=(40000, 38000), good=(20000, 20000)).items():
        write(tmp_path/'in'/f'{name}.tif', res=res)
    assert '--slide-mpp' in tiled(tmp_path/'run', tmp_path/'in')['oblong'][1]
    log = tiled(tmp_path/'given', tmp_path/'in', slide_mpp=.5)
    assert {v[0] for v in log.values()}=={'done'}
    assert 'although its file says 0.025' in log['tenfold'][1] and log['good'][1]==''


def test_a_bad_part_costs_its_region(tmp_path):
    from hipt_nb.cohort import read_manifest
    from hipt_nb.embed import embed_cohort
    from hipt_nb.features import read_features
    from hipt_nb.hipt import create_hipt
    from hipt_nb.run import Run
    path, a = tmp_path/'s.tif', picture(1024)
    with tifffile.TiffWriter(path) as t:
        for k in (1, 16):
            t.write(np.ascontiguousarray(a[::k, ::k]), photometric='rgb', tile=(256, 256), compression='jpeg',
                    resolution=(20000/k, 20000/k), resolutionunit=3, subfiletype=int(k>1))
    with tifffile.TiffFile(path) as t: at, n = t.pages[0].dataoffsets[5], t.pages[0].databytecounts[5]
    with open(path, 'r+b') as f:
        f.seek(at)
        f.write(bytes([0x11, 0])*(n//2))
    run, m, hipt_ = Run(tmp_path/'run'), read_manifest(path), create_hipt('hipt-tiny', name='t').eval()
    assert tiled(tmp_path/'run', path, region_size=512)['s'][0]=='done'
    assert embed_cohort(run, m, hipt_, precision='float32')['failed']==1
    assert '--skip-bad-regions' in run.read_log()['s', 'embed/t'][1]
    assert embed_cohort(run, m, hipt_, precision='float32', skip_bad=True)['done']==1
    assert '1 of 4 regions left out' in run.read_log()['s', 'embed/t'][1]
    f = read_features(run.features('t', 's'))
    assert f.mask().any((1, 2)).tolist()==[False, True, True, True] and np.isfinite(f.region).all()


def test_narrow_output(tmp_path):
    write(tmp_path/'片1.tif')
    r = hipt('info', tmp_path, env=dict(os.environ, PYTHONIOENCODING='ascii', PYTHONUTF8='0'))
    assert r.returncode==0 and 'Traceback' not in r.stderr and '\\u7247' in r.stdout


def test_json_version_and_encoding(tmp_path):
    write(tmp_path/'s.tif')
    (tmp_path/'m.csv').write_bytes('path,label\ns.tif,癌\n'.encode('gbk'))
    assert 'hipt: ' in hipt('info', tmp_path/'m.csv').stderr
    found, = json.loads(hipt('info', tmp_path/'m.csv', '--json', '--encoding', 'gbk').stdout)
    assert found['mpp']==.5 and found['slide_id']=='s' and {'objective_power', 'scanner', 'path'} <= set(found)
    assert hipt('--version').stdout.startswith('hipt 0.')


def embedded(run, path, **kw):
    "Embed the slides of a path with an untrained pyramid; counts, and what was said of the first"
    from hipt_nb.cohort import read_manifest
    from hipt_nb.embed import embed_cohort
    from hipt_nb.hipt import create_hipt
    m = read_manifest(path)
    counts = embed_cohort(run, m, create_hipt('hipt-tiny', name='t').eval(), precision='float32', batch_size=16, **kw)
    return counts, run.read_log()[m.slide_id[0], 'embed/t'][1]


def test_colours_are_recorded_and_compared(tmp_path):
    "Features of other colours are never mixed, and what was chosen once holds for the run"
    pytest.importorskip('torchstain', reason="the extra 'stain' is not installed")
    from hipt_nb.core import HIPTError
    from hipt_nb.features import differences, read_features
    from hipt_nb.phantom import make_slide
    from hipt_nb.run import Run
    path, run = make_slide(tmp_path/'s.tif', seed=1, size=512), Run(tmp_path/'run')
    tiled(tmp_path/'run', path)
    assert embedded(run, path)[0]['done']==1
    before = read_features(run.features('t', 's'))
    with pytest.raises(HIPTError, match="stain: 'none' before, 'macenko' now.*--redo"):
        embedded(run, path, stain='macenko')
    assert embedded(run, path, stain='macenko', redo=True)[0]['done']==1
    after = read_features(run.features('t', 's'))
    assert after.made_by['stain']=='macenko' and np.shape(after.made_by['stain_matrix'])==(3, 3)
    assert not np.array_equal(before.patch, after.patch)
    assert differences(before.made_by, after.made_by)=={'stain': ('none', 'macenko')}
    assert embedded(run, path)[0]['skipped']==1   # as the run has it
    with pytest.raises(HIPTError, match="stain: 'macenko' before, 'reinhard' now.*--redo"):
        embedded(run, path, stain='reinhard')
    assert embedded(run, path, stain='reinhard', redo=True)[0]['done']==1
    last = read_features(run.features('t', 's'))
    assert last.made_by['stain']=='reinhard' and np.shape(last.made_by['stain_matrix'])==(2, 3)
    assert differences(after.made_by, last.made_by)=={'stain': ('macenko', 'reinhard')}


@pytest.mark.parametrize('stain', ['macenko', 'reinhard'])
def test_attention_reads_the_colours_of_the_features(tmp_path, stain):
    "Tokens inside patches are computed from the pixels that level 1 saw, whatever the slide is stored in"
    pytest.importorskip('torchstain', reason="the extra 'stain' is not installed")
    from hipt_nb.attend import attend_slide
    from hipt_nb.attention import region_scores
    from hipt_nb.features import read_features
    from hipt_nb.hipt import create_hipt
    from hipt_nb.phantom import make_slide
    from hipt_nb.run import Run
    from hipt_nb.slide import Slide
    from hipt_nb.tiling import read_tiles
    path, run = make_slide(tmp_path/'s.tif', seed=1, size=512), Run(tmp_path/'run')
    tiled(tmp_path/'run', path)
    assert embedded(run, path, stain=stain)[0]['done']==1
    hipt, tiles = create_hipt('hipt-tiny', name='t').eval(), read_tiles(run.tiles('s'))
    f = read_features(run.features('t', 's'))
    with Slide(path) as s: maps = attend_slide(hipt, s, tiles, f, top=1)
    m = maps.top[0]
    def tokens(stain):
        with Slide(path) as s:
            tiles.find_colour(s, stain)
            return region_scores(hipt.frozen(), tiles.read(s, m), (0,), mask=f.mask()[m])[0]
    off = [np.nanmax(np.abs(maps.token[0]-tokens(s))) for s in (stain, 'none')]
    assert off[0]<1e-5 and off[1]>3e-5, off   # float16 aside


def test_a_picture_that_is_cut_off(tmp_path):
    "Said of slides and masks, without a library's words"
    from PIL import Image

    from hipt_nb.areas import read_mask
    from hipt_nb.core import HIPTError
    from hipt_nb.slide import Slide
    whole = write(tmp_path/'s.tif')
    for name in ('s.jpg', 's.png', 's.bmp', 's.webp'):
        Image.fromarray(picture()).save(tmp_path/name)
        data = (tmp_path/name).read_bytes()
        for share in (.02, .6):
            n = int(len(data)*share)
            (tmp_path/name).write_bytes(data[:n])
            says = f'incomplete: it is cut off at byte {n:,}: copy it again from its source'
            with pytest.raises(HIPTError, match=says): Slide(tmp_path/name, slide_mpp=.5)
            with Slide(whole) as s, pytest.raises(HIPTError, match=says): read_mask(tmp_path/name, s)


def test_a_frame_that_is_tissue_everywhere(tmp_path):
    "Kept, and said: there is no glass to tell it from"
    from hipt_nb.tiling import read_tiles
    full = np.clip([200, 120, 170] + RNG.normal(0, 20, (1024, 1024, 3)), 0, 255).astype(np.uint8)
    said = tiled(tmp_path/'run', write(tmp_path/'s.tif', full))['s'][1]
    assert 'its tissue is uncertain' in said and 'of the slide counts as tissue' in said
    assert read_tiles(tmp_path/'run'/'tiles'/'s.h5').tissue.min()==1


def test_a_czi_that_openslide_does_not_read(tmp_path):
    "Of focus planes or time points: not damaged, and not to be copied again"
    from hipt_nb.readers import _refusal
    path = tmp_path/'a.czi'
    path.write_bytes(b'ZISRAWFILE'.ljust(128, b'\0'))
    said = _refusal(path, [ValueError('Unrecognized subblock dimension "Z"')])
    assert 'export it from ZEN or QuPath as OME-TIFF' in said and '"Z"' in said and 'copy' not in said


def test_a_gdc_manifest_by_a_relative_path(tmp_path, monkeypatch):
    from hipt_nb.cohort import read_manifest
    write(tmp_path/'d'/'a'/'s.svs')
    (tmp_path/'d'/'m.txt').write_text('id\tfilename\tmd5\tsize\tstate\na\ts.svs\t0\t1\treleased\n')
    monkeypatch.chdir(tmp_path)
    assert Path(read_manifest(Path('d')/'m.txt').path[0]).exists()


@pytest.mark.parametrize('words', [('None', 'None'), ('', 'None')])
def test_trident_without_magnification(tmp_path, words):
    "Its patches are as wide as it says; µm per pixel are the slide's"
    import h5py
    from hipt_nb.core import HIPTError
    from hipt_nb.exchange import _magnified, look_into
    with h5py.File(tmp_path/'s.h5', 'w') as f:
        d = f.create_dataset('coords', data=np.array([[0, 0], [512, 0]]))
        d.attrs.update(dict(patch_size=256, patch_size_level0=512, overlap=0, level0_magnification=words[0],
                            target_magnification=words[1]))
    found = look_into(tmp_path/'s.h5')
    assert (_magnified(found, .25, None)['mpp'], _magnified(found, .25, None)['side'])==(.5, 512)
    with pytest.raises(HIPTError, match='does not say its magnification.*--slide-mpp'): _magnified(found, None, None)


# Every option and command that a message names has to exist

SOURCES = sorted((Path(__file__).parent.parent/'hipt_nb').glob('[a-z]*.py'))


def commands():
    import typer
    from hipt_nb.cli import app
    return typer.main.get_command(app)


def advice():
    "(module, text) of every string in the package that names an option or a command"
    import ast
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text('utf-8'))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str): yield path.stem, node.value


def test_options_in_messages_exist():
    app = commands()
    options = {o for c in app.commands.values() for p in c.params for o in (*p.opts, *p.secondary_opts)}
    options |= {o for p in app.params for o in p.opts} | {'--help'}
    # of torchrun, sbatch, git and vips; of an import that is not a command yet; how --samples1 and --samples2 begin
    others = {'--nproc-per-node', '--link', '--tile', '--pyramid', '--vscale', '--samples', '--array', '--short',
              '--porcelain'}
    named = {(m, o) for m, text in advice() for o in re.findall(r'(?<![\w-])--[a-z][a-z0-9-]+', text)}
    assert len(named)>20
    assert {(m, o) for m, o in named if o not in options | others}==set()


def test_commands_in_messages_exist():
    app = commands()
    named = {(m, c) for m, text in advice() for c in re.findall(r"'hipt ([a-z-]+)", text)}
    assert len(named)>5
    assert {(m, c) for m, c in named if c not in app.commands}==set()
