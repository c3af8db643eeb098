"""What the readers of other tools find in files exported for them, for `tests/test_export.py`

Run beside the project, where `moozy`, `lazyslide`, `wsidata` and `hs2p` are installed, with the sources of STAMP and
slide2vec in two folders: python make_receivers.py STAMP SLIDE2VEC. Writes receivers.json."""
import ast
import json
import sys
import tempfile
import warnings
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import h5py
import numpy as np
import torch

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]
warnings.filterwarnings('ignore')
from receivers_run import NAME, make_run

from hipt_nb.export import FEATURE_FORMATS, export_features_cohort


def summary(a):
    "Shape, type and two sums of an array"
    a = np.asarray(a, dtype=np.float64)
    weighted = (a.ravel()*np.arange(a.size)).sum()
    return dict(shape=list(a.shape), sum=round(float(a.sum()), 3), weighted=round(float(weighted), 1))


def functions(path, *names, **given):
    "Functions and classes of a source file, without what it imports"
    tree = ast.parse(Path(path).read_text())
    tree.body = [o for o in tree.body if getattr(o, 'name', None) in names]
    space = dict(given)
    exec(compile(tree, str(path), 'exec'), space)
    return [space[n] for n in names]


def moozy(folder):
    from moozy.data.stage2.dataset import load_stage2_slide_sample
    path = folder/'trident'/'20x_256px_0px_overlap'/f'features_{NAME}'/'s01.h5'
    s = load_stage2_slide_sample('s01', str(path), include_geometry_meta=True)
    return dict(version=version('moozy'), grid=summary(s['x']), valid=int((~s['invalid']).sum()),
                patch_size_level0=s['patch_size_level0'], patch_size=s['patch_size_value'],
                first=s['coords'][0, 0].tolist())


def stamp(folder, source):
    from packaging.version import Version

    class Stamp: __version__ = '2.5.0'
    types = dict(Microns=float, TilePixels=int, SlideMPP=float, Version=Version, stamp=Stamp, np=np, torch=torch,
                 h5py=h5py, dataclass=dataclass, Path=Path, Tensor=torch.Tensor, cast=lambda t, v: v)
    path = Path(source)/'src'/'stamp'/'modeling'/'data.py'
    _, get_coords, detect, _ = functions(path, 'CoordsInfo', 'get_coords', 'detect_feature_type', 'get_stride', **types)
    with h5py.File(folder/'stamp'/NAME/'s01.h5') as h: c, x = get_coords(h), h['feats'][:]
    kinds = {k: detect(folder/'stamp'/f'{NAME}{k}') for k in ('', '-regions', '-slide')}
    return dict(coords_um=summary(c.coords_um), tile_size_um=c.tile_size_um, mpp=c.mpp, feats=summary(x), kinds=kinds)


def slide2vec(folder, source):
    from hs2p.tiling.io import _load_tiling_result_from_paths
    load, = functions(Path(source)/'slide2vec'/'artifacts.py', 'load_array', torch=torch, np=np, Path=Path)
    res = dict(hs2p=version('hs2p'))
    for kind, sub in (('', 'tile_embeddings'), ('-regions', 'hierarchical_embeddings')):
        here = folder/'slide2vec'/f'{NAME}{kind}'
        meta = json.loads((here/sub/'s01.meta.json').read_text())
        t = _load_tiling_result_from_paths(*(here/meta[f'coordinates_{k}_path'] for k in ('npz', 'meta')))
        res[sub] = dict(x=summary(t.x), y=summary(t.y), tile_size_lv0=t.tile_size_lv0,
                        array=summary(load(here/sub/'s01.pt')))
    return res


def lazyslide(folder):
    import lazyslide  # noqa: F401
    from spatialdata import read_zarr
    data = read_zarr(folder/'spatialdata'/'s01.zarr')
    from wsidata import TileSpec
    from wsidata.accessors.fetch import _tile_rows
    spec = TileSpec(**data.attrs['tile_spec']['tiles'])
    table = data.tables[f'{NAME}_tiles']
    rows = _tile_rows(data, f'{NAME}_tiles', 'tiles')
    corners = data.shapes['tiles'].bounds[['minx', 'miny']].to_numpy()
    return dict(version=version('lazyslide'), wsidata=version('wsidata'), base_width=spec.base_width, mpp=spec.mpp,
                features=summary(table.X[rows]), corners=summary(corners))


def anndata(folder):
    from anndata import read_h5ad
    a = read_h5ad(folder/'anndata'/NAME/'s01.h5ad')
    return dict(version=version('anndata'), X=summary(a.X), spatial=summary(a.obsm['spatial']),
                slide=summary(a.uns['slide']), encoder=a.uns['features']['encoder_name'])


if __name__ == '__main__':
    with tempfile.TemporaryDirectory() as d:
        run, manifest = make_run(Path(d)/'run')
        for to in FEATURE_FORMATS:
            counts = export_features_cohort(run, manifest, to, NAME)
            assert counts['done'] == 2, (to, counts, run.read_log())
        out = run.root/'export'
        found = dict(moozy=moozy(out), stamp=stamp(out, sys.argv[1]), slide2vec=slide2vec(out, sys.argv[2]),
                     lazyslide=lazyslide(out), anndata=anndata(out))
    Path(__file__).with_name('receivers.json').write_text(json.dumps(found, indent=1)+'\n')
    print(json.dumps(found, indent=1))
