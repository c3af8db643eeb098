"Features of other tools: files that the tools wrote, masks beside own tiles, copies and files read in place"
from dataclasses import replace
from pathlib import Path
import numpy as np, pandas as pd, pytest
from hipt_nb.cohort import read_manifest
from hipt_nb.core import HIPTError
from hipt_nb.exchange import patch_corners
from hipt_nb.features import load_bags, open_tokens, read_features
from hipt_nb.foreign import FlatFeatures, place_features, toy_flat
from hipt_nb.layouts import TOOLS, find_files, import_features_cohort, read_flat, toy_files
from hipt_nb.run import Run
from hipt_nb.samples import GridSource

golden = Path(__file__).parent/'golden'/'layouts'

@pytest.mark.parametrize('tool, source, encoder', [('atlaspatch', 'AtlasPatch', 'uni_v2'), ('hs2p', 'hs2p', 'uni2-h'),
                                                   ('slide2vec', 'slide2vec', 'uni2')])
def test_files_that_the_tools_wrote(tool, source, encoder, tmp_path):
    f = read_flat(find_files(golden/tool)['s01'], 's01', encoder)
    assert (f.source, f.side, f.patch_size, f.mpp, f.slide_mpp, f.extent) == (source, 512, 256, .5, .25, (30000, 20000))
    placed = place_features(f, 4, tmp_path)
    m, x = placed.tiles.mask(), np.asarray(placed.features.patch)
    assert m.sum()==229 and not f.x.slow and placed.note==''
    for xy,code,first in zip(placed.tiles.xy(), (1, 0), (1000, 700)): assert ((xy[m]-first)/512==x[m][:,code]-1).all()

@pytest.fixture(scope='module')
def phantom(tmp_path_factory):
    from hipt_nb.phantom import make_slide
    return make_slide(tmp_path_factory.mktemp('slide')/'p.tif', seed=1, size=2048, mpp=.25)

@pytest.mark.parametrize('mpp', [.2325, .25, .499])
def test_masks_are_those_of_own_tiles(tmp_path, phantom, mpp):
    "The same slide, the same lattice: features at the corners of own tiles give the same regions"
    from hipt_nb.slide import Slide
    from hipt_nb.tiling import tile_slide
    with Slide(phantom, slide_mpp=mpp) as s:
        own = tile_slide(s, region_size=512, blur='none')
    xy = patch_corners(own)
    x = np.ones((len(xy), 8), np.float32)
    for tool in ('trident', 'clam', 'plain'):
        toy_files(tmp_path/tool, FlatFeatures('p', x, xy, own.patch_size*own.scale, mpp, 'uni', own.patch_size), tool)
        f = read_flat(find_files(tmp_path/tool)['p'], 'p', 'uni', slide_mpp=mpp)
        tiles = place_features(f, own.grid[0], tmp_path).tiles
        assert (tiles.mask()==own.mask()).all() and np.abs(tiles.coords-own.coords).max()<=4

def cohort(folder, tool, n=4):
    for i in range(n): toy_files(folder, replace(toy_flat(i), extent=(90000, 90000)), tool)
    ids = [f's{i:02}' for i in range(n)]
    pd.DataFrame(dict(path=[f'gone/{i}.svs' for i in ids], label=['a', 'b']*(n//2))).to_csv(folder/'m.csv', index=False)
    return read_manifest(folder/'m.csv')

@pytest.mark.parametrize('tool', TOOLS)
def test_in_place_equals_a_copy(tmp_path, tool):
    "Bags, windows and regions"
    m = cohort(tmp_path, tool)
    runs = [Run(tmp_path/'copy'), Run(tmp_path/'link')]
    for run,link in zip(runs, (False, True)):
        assert import_features_cohort(run, m, tmp_path, 'toy', 8, .25, link=link)['done']==len(m)
    paths = [[run.features('toy', s) for s in m.slide_id] for run in runs]
    for a,b in zip(*paths): assert (read_features(a).patch==read_features(b).patch).all()
    a, b = (open_tokens(p[0]) for p in paths)
    for at in (0, (1, slice(2, 5), slice(0, 3)), slice(1, 3)): assert (a[at]==b[at]).all()
    for memory in (None, 0):
        for a,b in zip(*(load_bags(run, m, 'toy', 'patch', memory=memory) for run in runs)):
            assert (a.x.float()==b.x.float()).all() and (a.mask==b.mask).all() and a.made_by==b.made_by
    where = np.stack([np.arange(8), np.zeros(8, int)], 1)
    for a,b in zip(*(GridSource(p)(where) for p in paths)): assert (a==b).all()

def test_a_mixture_is_refused(tmp_path):
    "By the value that differs; the others go on"
    m = cohort(tmp_path, 'stamp')
    for p in tmp_path.rglob('s02.h5'): p.unlink()
    toy_files(tmp_path, replace(toy_flat(2), patch_size=224), 'stamp')
    run = Run(tmp_path/'run')
    assert import_features_cohort(run, m, tmp_path, 'toy', 8, .25)==dict(done=3, skipped=0, failed=1)
    assert 'mpp: 0.5 and 0.57' in run.read_log()['s02', 'import'][1]

def test_changed_and_gone(tmp_path):
    "One line with the remedy, which works"
    (tmp_path/'a').mkdir()
    m, run = cohort(tmp_path/'a', 'clam'), Run(tmp_path/'run')
    import_features_cohort(run, m, tmp_path/'a', 'toy', 8, .25, link=True)
    (tmp_path/'a').rename(tmp_path/'b')
    with pytest.raises(HIPTError, match='is gone'): read_features(run.features('toy', 's01'))
    assert import_features_cohort(run, m, tmp_path/'b', 'toy', 8, .25, link=True)['done']==4
    assert read_features(run.features('toy', 's01')).patch.any()
    assert import_features_cohort(run, m, tmp_path/'b', 'toy', 8, .25, link=True)['skipped']==4
