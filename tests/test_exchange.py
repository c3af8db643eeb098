"Coordinates of other tools: files laid out by their rules, there and back, and damaged ones"
import json
import h5py, numpy as np, pytest
from hipt_nb.core import HIPTError
from hipt_nb.cohort import read_manifest
from hipt_nb.run import Run
from hipt_nb.exchange import (FORMATS, export_cohort, find_coords, find_files, import_cohort, patch_corners,
                              read_patches, to_clam, to_tiles, to_trident)
from hipt_nb.phantom import make_slide
from hipt_nb.slide import Slide
from hipt_nb.tiling import read_tiles, tile_slide

@pytest.fixture(scope='module')
def phantom(tmp_path_factory): return make_slide(tmp_path_factory.mktemp('slide')/'p.tif', seed=1, size=4096, mpp=.25)

@pytest.fixture
def slide(phantom):
    with Slide(phantom) as s: yield s

def clam(path, xy, size=512, level=0, downsample=1., **more):
    "As CLAM's `save_hdf5` lays it out"
    with h5py.File(path, 'w') as f:
        d = f.create_dataset('coords', data=np.array(xy), maxshape=(None,2), chunks=(1,2))
        for k,v in dict(patch_size=size, patch_level=level, downsample=(downsample, downsample),
                        downsampled_level_dim=(1,1), level_dim=(1,1), name='p', save_path='x', **more).items():
            d.attrs[k] = v
    return path

def trident(path, xy, size=256, source=40, target=20, overlap=0):
    "As TRIDENT's `coords_to_h5` lays it out"
    with h5py.File(path, 'w') as f:
        d = f.create_dataset('coords', data=np.array(xy, np.int64).reshape(-1,2))
        for k,v in dict(patch_size=size, patch_size_level0=size*source//target, level0_magnification=source,
                        target_magnification=target, overlap=overlap, name='p', savetodir='x', level0_width=4096,
                        level0_height=4096).items():
            d.attrs[k] = v
    return path

GRID = [(x, y) for y in range(0, 2048, 512) for x in range(512, 2560, 512)]

def test_clam(tmp_path, slide):
    t = to_tiles(read_patches(clam(tmp_path/'p.h5', GRID), slide), grid=4)
    assert (t.mpp, t.patch_size, t.region_size) == (.25, 512, 2048) and t.mask().sum()==16
    assert t.coords.tolist()==[[0,0],[2048,0]]
    one = read_patches(clam(tmp_path/'q.h5', GRID, 128, 1, 4.), slide)          # the same patches, read from level 1
    assert (one.side, one.patch_size) == (512, 128) and to_tiles(one, 4).mpp==1
    fork = read_patches(clam(tmp_path/'r.h5', GRID, 256, custom_downsample=2), slide)
    assert fork.side==512
    with h5py.File(tmp_path/'features.h5', 'w') as f: f['features'], f['coords'] = np.zeros((16,8)), np.array(GRID)
    with pytest.raises(HIPTError, match='does not say how wide'): read_patches(tmp_path/'features.h5', slide)

def test_trident(tmp_path, slide):
    t = to_tiles(read_patches(trident(tmp_path/'p_patches.h5', GRID), slide), grid=4)
    assert (t.mpp, t.patch_size) == (.5, 256) and t.mask().sum()==16
    assert len(to_tiles(read_patches(trident(tmp_path/'e_patches.h5', []), slide)))==0
    with pytest.raises(HIPTError, match='overlap by 128'):
        to_tiles(read_patches(trident(tmp_path/'o_patches.h5', GRID, overlap=64), slide))

def test_magnification_class_is_taken_as_it_was_cut(tmp_path, phantom):
    "At 0.265 µm per pixel TRIDENT's 20× patches are 512 level-0 px wide: the tiles are at 0.53 µm per pixel"
    with Slide(phantom, slide_mpp=.265) as s:
        assert to_tiles(read_patches(trident(tmp_path/'p_patches.h5', GRID), s)).mpp==pytest.approx(.53)

def test_stamp_old_and_new(tmp_path, slide):
    um = np.array(GRID)*.25
    for name, attrs in [('new', dict(tile_size_um=128., tile_size_px=256, unit='um')),
                        ('v2', dict(tile_size=128., unit='um'))]:
        with h5py.File(tmp_path/f'{name}.h5', 'w') as f:
            f['coords'], f['feats'] = um, np.zeros((16,8)); f.attrs.update(attrs)
        p = read_patches(tmp_path/f'{name}.h5', slide)
        assert p.source=='STAMP' and p.side==512 and np.allclose(p.coords, GRID) and to_tiles(p, 4).mask().sum()==16

def test_hs2p_old_and_new(tmp_path, slide):
    x, y = np.array(GRID).T
    np.savez(tmp_path/'p.coordinates.npz', tile_index=np.arange(16), x=x, y=y,
             tissue_fractions=np.linspace(.1, 1, 16, dtype='f4'))
    tiling = dict(tile_size_lv0=512, step_px_lv0=512, requested_tile_size_px=256, overlap=0.)
    (tmp_path/'p.coordinates.meta.json').write_text(json.dumps(dict(tiling=tiling)))
    t = to_tiles(read_patches(tmp_path/'p.coordinates.npz', slide), grid=4)
    assert t.mask().sum()==16 and t.tissue.max()==1 and .09<t.tissue[t.mask()].min()<.11 and t.mpp==.5
    old = np.zeros(16, dtype=[('x',int),('y',int),('tile_size_resized',int),('tile_level',int),('resize_factor',float)])
    old['x'], old['y'], old['tile_size_resized'], old['resize_factor'] = x, y, 512, 2
    np.save(tmp_path/'p.npy', old)
    p = read_patches(tmp_path/'p.npy', slide)
    assert (p.side, p.patch_size) == (512, 256)

@pytest.mark.parametrize('mpp', [.2325, .25, .265, .499])
@pytest.mark.parametrize('to', ['clam', 'trident'])
def test_there_and_back(tmp_path, phantom, mpp, to):
    "The same patches at the same places, within the 2 % that patches may be off their grid"
    with Slide(phantom, slide_mpp=mpp) as s:
        t = tile_slide(s, region_size=512, blur='none')
        if to=='clam': to_clam(path := tmp_path/'p.h5', t, s)
        else: path = to_trident(tmp_path, t, s)
        back = to_tiles(read_patches(path, s), grid=2)
        assert back.mask().sum()==t.mask().sum()
        assert np.abs(np.sort(patch_corners(back), 0)-np.sort(patch_corners(t), 0)).max() <= max(2, .02*256*t.scale)
        assert np.abs(back.coords-t.coords).max()<=8 and (to=='clam' or abs(back.mpp/t.mpp-1)<.003)

def test_what_overlapping_regions_share_is_exported_once(slide):
    a, b = (patch_corners(tile_slide(slide, region_size=1024, overlap=o, blur='none')) for o in (0, 512))
    assert len(b)==len(np.unique(b, axis=0)) and set(map(tuple, a)) <= set(map(tuple, b))

def test_damaged_files_are_one_clear_error(tmp_path, slide):
    good = clam(tmp_path/'p.h5', GRID).read_bytes()
    for n in range(0, len(good), len(good)//12):
        (tmp_path/'cut.h5').write_bytes(good[:n])
        with pytest.raises(HIPTError, match='cut.h5'): read_patches(tmp_path/'cut.h5', slide)
    (tmp_path/'x.npz').write_bytes(b'PK'); (tmp_path/'y.npy').write_bytes(b'')
    np.savez(tmp_path/'nometa.coordinates.npz', x=[0], y=[0])
    for name in ('x.npz', 'y.npy', 'nometa.coordinates.npz', 'missing.h5'):
        with pytest.raises(HIPTError, match=name.split('.')[0]): read_patches(tmp_path/name, slide)
    np.save(tmp_path/'evil.npy', np.array([{'a': 1}], dtype=object), allow_pickle=True)
    with pytest.raises(HIPTError, match='evil'): read_patches(tmp_path/'evil.npy', slide)
    with pytest.raises(HIPTError, match='belong to another slide'):
        read_patches(clam(tmp_path/'far.h5', [(90_000, 0)]), slide)
    with pytest.raises(HIPTError, match='two files'):
        for d in 'ab': (tmp_path/'both'/d).mkdir(parents=True); clam(tmp_path/'both'/d/'p.h5', GRID)
        find_coords(find_files(tmp_path/'both'), 'p')

def test_an_imported_run_can_be_embedded(tmp_path, phantom):
    from hipt_nb.embed import embed_cohort
    from hipt_nb.features import load_bags
    from hipt_nb.hipt import create_hipt
    (tmp_path/'patches').mkdir(); trident(tmp_path/'patches'/'p_patches.h5', GRID[:6])
    run, m, hipt = Run(tmp_path/'run'), read_manifest(phantom), create_hipt('hipt-tiny').eval()
    assert import_cohort(run, m, tmp_path/'patches', grid=4)['done']==1
    assert import_cohort(run, m, tmp_path/'patches', grid=4)['skipped']==1
    assert embed_cohort(run, m, hipt)['done']==1
    assert load_bags(run, m, hipt.name)[0].x.shape[0]==len(read_tiles(run.tiles('p')))
    for to in FORMATS: assert export_cohort(run, m, to)['done']==1
