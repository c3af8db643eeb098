"""How `layouts/` was made: coded features, by the writers of AtlasPatch 1.1.0, hs2p 6.1.0 and slide2vec 7.1.4

    python tests/golden/make_layouts.py   # in an environment of its own, with those three packages

The first two of a patch's eight features are its row and its column, from 1; patches are 512 level-0 px wide."""
import dataclasses
from pathlib import Path
import numpy as np, torch

out = Path(__file__).parent/'layouts'
rng = np.random.default_rng(5)
row, col = (o.ravel() for o in np.mgrid[:13,:22])
x = rng.normal(size=(286, 8)).astype('f4')
x[:,0], x[:,1] = row+1, col+1
kept = rng.permutation(286)[57:]
xy, x = (np.stack([col, row], 1)*512+[1000, 700])[kept], x[kept]

def atlaspatch(path=out/'atlaspatch'/'s01.h5'):
    from atlas_patch.services.storage import H5PatchWriter
    path.parent.mkdir(parents=True, exist_ok=True)
    w = H5PatchWriter(chunk_rows=32, patch_size=256, patch_size_level0=512, level0_mag=40, target_mag=20,
                      overlap=0, level0_wh=(30000, 20000), slide_stem='s01', wsi_path='s01.svs',
                      extra_file_attrs=dict(mpp=.25))
    entries = [(int(a), int(b), 512, 512, 0, np.zeros((4, 4, 3), 'u1')) for a,b in xy]
    w.write_coords(output_path=path, entries=iter(entries), batch=32, collect_coords=False)
    batches = iter(np.split(x, range(32, len(x), 32)))
    w.append_features(output_path=path, entries=iter(entries), feature_name='uni_v2',
                      feature_fn=lambda _: next(batches), feature_attrs=dict(embedding_dim=8),
                      feature_batch=32, expected_total=len(x))

def hs2p(folder, order):
    from hs2p.tiling.io import _save_tiling_result
    from hs2p.tiling.result import TileGeometry, TilingResult
    known = dict(x=xy[order,0], y=xy[order,1], tissue_fractions=np.ones(len(x), 'f4'), sample_id='s01',
                 image_path='s01.svs', tile_index=np.arange(len(x), dtype=np.int32), requested_tile_size_px=256,
                 requested_spacing_um=.5, read_level=0, read_tile_size_px=512, read_spacing_um=.25,
                 tile_size_lv0=512, is_within_tolerance=False,
                 base_spacing_um=.25, slide_dimensions=[30000, 20000], level_downsamples=[1.], overlap=0.,
                 min_tissue_fraction=.1, tolerance=.05, step_px_lv0=512)
    fill = lambda kind, **more: kind(**{f.name: {**known, **more}.get(f.name) for f in dataclasses.fields(kind)})
    _save_tiling_result(fill(TilingResult, tiles=fill(TileGeometry)), folder/'tiles')

def slide2vec(folder, order):
    from slide2vec.artifacts import write_tile_embeddings
    meta = dict(encoder_name='uni2', coordinates_npz_path='gone/tiles/s01.coordinates.npz', tile_size_lv0=512,
                requested_tile_size_px=256, requested_spacing_um=.5)
    write_tile_embeddings('s01', torch.from_numpy(x[order]), output_dir=folder, metadata=meta)

if __name__=='__main__':
    order = np.lexsort((xy[:,1], xy[:,0]))  # as hs2p lists patches
    atlaspatch()
    for name in ('hs2p', 'slide2vec'): hs2p(out/name, order)
    np.save(out/'hs2p'/'s01.npy', x[order])
    slide2vec(out/'slide2vec', order)
