"""Features exported for other tools, read back by plain rules: the same as the tools' own readers found

What those found is in golden/receivers.json, made by golden/make_receivers.py beside the project."""
import json
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent/'golden'))
from receivers_run import NAME, make_run

from hipt_nb.export import export_features_cohort, to_export
from hipt_nb.features import read_features
from hipt_nb.foreign import place_features
from hipt_nb.layouts import read_flat
from hipt_nb.tiling import read_tiles

receivers = json.loads((Path(__file__).parent/'golden'/'receivers.json').read_text())


def summary(a):
    a = np.asarray(a, dtype=np.float64)
    weighted = (a.ravel()*np.arange(a.size)).sum()
    return dict(shape=list(a.shape), sum=round(float(a.sum()), 3), weighted=round(float(weighted), 1))


@pytest.fixture(scope='module')
def out(tmp_path_factory):
    run, manifest = make_run(tmp_path_factory.mktemp('run'))
    for to in ('trident', 'clam', 'stamp', 'slide2vec', 'anndata'):
        assert export_features_cohort(run, manifest, to, NAME)['done']==2
    return run.root/'export'


def test_moozy_finds_every_patch_in_its_cell(out):
    found = receivers['moozy']
    with h5py.File(out/'trident'/'20x_256px_0px_overlap'/f'features_{NAME}'/'s01.h5') as h:
        x, xy, a = h['features'][:], h['coords'][:], dict(h['coords'].attrs)
    assert (a['patch_size_level0'], a['patch_size'])==(found['patch_size_level0'], found['patch_size'])
    cells = (xy-xy.min(0))/a['patch_size_level0']
    assert (cells==np.round(cells)).all() and xy.min(0).tolist()==found['first']
    col, row = cells.astype(int).T
    grid = np.zeros((row.max()+1, col.max()+1, x.shape[1]), np.float32)
    grid[row, col] = x
    assert summary(grid)==found['grid'] and len(x)==found['valid']
    assert (x[:, 0]==row+1).all() and (x[:, 1]==col+1).all()                      # coded features: each in its place


def test_stamp(out):
    found = receivers['stamp']
    with h5py.File(out/'stamp'/NAME/'s01.h5') as h:
        assert summary(h['coords'])==found['coords_um'] and summary(h['feats'])==found['feats']
        assert h.attrs['tile_size_um']==found['tile_size_um']
        assert h.attrs['tile_size_um']/h.attrs['tile_size_px']==found['mpp'] and h.attrs['extractor']=='uni2'
    assert found['kinds']=={'': 'tile', '-regions': 'tile', '-slide': 'slide'}
    for kind, expected in found['kinds'].items():
        for path in (out/'stamp'/f'{NAME}{kind}').glob('*.h5'):
            with h5py.File(path) as h: assert h.attrs['feat_type']==expected


@pytest.mark.parametrize('kind, sub', [('', 'tile_embeddings'), ('-regions', 'hierarchical_embeddings')])
def test_slide2vec(out, kind, sub):
    found, here = receivers['slide2vec'][sub], out/'slide2vec'/f'{NAME}{kind}'
    meta = json.loads((here/sub/'s01.meta.json').read_text())
    with np.load(here/meta['coordinates_npz_path']) as at:
        assert summary(at['x'])==found['x'] and summary(at['y'])==found['y']
        assert (np.lexsort((at['y'], at['x']))==np.arange(len(at['x']))).all()
    tiling = json.loads((here/meta['coordinates_meta_path']).read_text())['tiling']
    assert tiling['tile_size_lv0']==found['tile_size_lv0']
    assert summary(torch.load(here/sub/'s01.pt', weights_only=True))==found['array']


def test_tables_hold_the_same_rows(out):
    "AnnData and LazySlide found the rows and corners that the HDF5 files hold"
    path = out/'trident'/'20x_256px_0px_overlap'/f'features_{NAME}'/'s01.h5'
    with h5py.File(path) as h: x, xy = h['features'][:], h['coords'][:]
    assert receivers['anndata']['X']==receivers['lazyslide']['features']==summary(x)
    assert receivers['anndata']['spatial']==receivers['lazyslide']['corners']==summary(xy)


def test_anndata(out):
    found = receivers['anndata']
    with h5py.File(out/'anndata'/NAME/'s01.h5ad') as h:
        there = dict(X=h['X'], spatial=h['obsm/spatial'], slide=h['uns/slide'])
        assert {k: summary(v) for k, v in there.items()}=={k: found[k] for k in there}
        assert h['uns/features/encoder_name'].asstr()[()]==found['encoder']


def test_there_and_back(out):
    "TRIDENT's layout, imported again, gives the grids that were exported"
    run = out.parent
    flat = read_flat(out/'trident'/'20x_256px_0px_overlap'/f'features_{NAME}'/'s01.h5', 's01')
    back, f = place_features(flat, 8), read_features(run/'features'/NAME/'s01.h5')
    assert flat.encoder_name==NAME and (back.features.patch==f.patch).all()
    assert (back.tiles.coords==read_tiles(run/'tiles'/'s01.h5').coords).all()
    assert to_export(read_tiles(run/'tiles'/'s01.h5'), f).about['made_by']['level2_sha256']=='cd34'
