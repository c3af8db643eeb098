"""Peak memory of embedding by regions, and of training by slides: it should grow with neither.

Embedding: one slide, a phantom pyramid of repeated tiles, and the first 1, 20, 200 of its regions of 4096 px (1024 with
`--quick`); of each only two patches count as tissue, so that regions are read whole but little is computed. Training:
ABMIL on patch bags of as many patches as a large slide has (a tenth with `--quick`), for more and more slides, in
float16 on disk. The same with `max_patches=0`, all patches in every step. Each number is that of a process of its own,
Python, torch and pages of mapped files included (`ru_maxrss`)."""
import argparse, json, math, multiprocessing, tempfile
from pathlib import Path
import numpy as np, pandas as pd, torch
from timing import alone, arguments, keep, machine, peak_gb

CLASSES = ['a', 'b']

def embed(path, regions, side):
    "Peak memory of a process that embeds the first regions of a slide"
    from hipt_nb.embed import embed_slide
    from hipt_nb.hipt import create_hipt
    from hipt_nb.slide import Slide
    from hipt_nb.tiling import Tiles, grid_starts
    hipt = create_hipt('hipt-4k', mpp=.25)
    hipt.use_plan(8, True)
    with Slide(path) as s:
        xs, ys = (grid_starts(n, side) for n in s.dimensions)
        coords = np.array([(x, y) for y in ys for x in xs], np.int64)[:regions]
        tissue = np.zeros((len(coords), side//256, side//256), np.float16)
        tissue[:,:1,:2] = 1
        none = np.zeros_like(tissue)
        tiles = Tiles(s.name, coords, tissue, none, none, s.mpp, s.mpp, side, 256, dict(min_tissue=.1))
        f = embed_slide(hipt, s, tiles)
    assert len(f.patch)==regions, f'{len(f.patch)} regions of {regions}'
    return peak_gb()

def make_cohort(run, slides, patches, dim, grid=16):
    "Slides of noise, in half of which one patch in a hundred has a signal"
    from hipt_nb.features import Features, write_features
    regions, rng = -(-patches//grid**2), np.random.default_rng(0)
    made_by = dict(encoder_name='made-up', level1_sha256='x', min_tissue=.1)
    rows = []
    for i in range(slides):
        x = rng.standard_normal((regions, grid, grid, dim), dtype=np.float32).astype(np.float16)
        tissue = np.zeros((regions, grid, grid), np.float16)
        tissue.flat[:patches] = 1
        if i%2: x.reshape(-1, dim)[:patches:100, :8] += 3
        coords = np.stack([np.arange(regions), np.zeros(regions)], 1).astype(np.int64)*4096
        write_features(run.features('made-up', f's{i}'), Features(f's{i}', x, None, coords, tissue, made_by))
        rows.append(dict(slide_id=f's{i}', patient=f's{i}', label=CLASSES[i%2]))
    return pd.DataFrame(rows)

def train(root, slides, max_patches):
    "Peak memory of a process that trains on the first slides of a cohort"
    from hipt_nb.evaluate import patient_folds
    from hipt_nb.features import load_bags
    from hipt_nb.finetune import cross_validate
    from hipt_nb.run import Run
    run = Run(root)
    df = pd.read_csv(run.table('cohort')).head(slides)
    bags = load_bags(run, df, 'made-up', bags='patch')
    cross_validate(bags, patient_folds(df, 2), run.root/f'abmil-{slides}-{max_patches}', CLASSES, model='abmil',
                   epochs=1, max_patches=max_patches)
    return peak_gb()

def of_embedding(folder, regions, side):
    "(number of regions, GB)"
    from tiling import build
    path = Path(folder)/'slide.tif'
    whole = side*(math.isqrt(max(regions)-1)+1)
    p = multiprocessing.get_context('spawn').Process(target=build, args=(path, whole, 3, 1))
    p.start()   # in a process of its own: a child's peak memory is counted from its parent's
    p.join()
    for n in regions: yield n, round(alone(__file__, '--embed', path, n, side), 2)

def of_training(folder, slides, patches, dim):
    "GB by number of slides, with patches sampled and with all of them; size of the features"
    from hipt_nb.run import Run
    cohort = Run(folder)
    make_cohort(cohort, max(slides), patches, dim).to_csv(cohort.table('cohort'), index=False)
    size = sum(p.stat().st_size for p in Path(folder).rglob('*.h5'))/1e9
    peak = lambda n, most: round(alone(__file__, '--train', folder, n, most), 2)
    return dict(patches=patches, dimensions=dim, features_gb={n: round(size*n/max(slides), 2) for n in slides},
                peak_gb_by_slides={n: peak(n, 4096) for n in slides},
                peak_gb_of_all_patches_by_slides={n: peak(n, 0) for n in slides})

def main(a):
    side = 1024 if a.quick else 4096
    res = machine() | dict(region_px=side, embedding_peak_gb_by_regions={})
    with tempfile.TemporaryDirectory() as d:
        for n,gb in of_embedding(d, a.regions, side):
            res['embedding_peak_gb_by_regions'][n] = gb
            print(f'{n} regions: {gb} GB', flush=True)
            keep(a.out, res)
    with tempfile.TemporaryDirectory() as d:
        res['training'] = of_training(d, a.slides, 2_560 if a.quick else 25_600, 1536)
    print(json.dumps(res, indent=1))
    keep(a.out, res)

if __name__=='__main__':
    p = arguments(__doc__)
    p.add_argument('--regions', type=int, nargs='*', default=[1, 20, 200])
    p.add_argument('--slides', type=int, nargs='*', default=[8, 64])
    p.add_argument('--embed', nargs=3, help=argparse.SUPPRESS)
    p.add_argument('--train', nargs=3, help=argparse.SUPPRESS)
    a = p.parse_args()
    torch.set_num_threads(1)
    if a.embed: print(json.dumps(embed(a.embed[0], *map(int, a.embed[1:]))))
    elif a.train: print(json.dumps(train(a.train[0], int(a.train[1]), int(a.train[2]))))
    else: main(a)
