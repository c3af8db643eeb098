"""Does pretraining teach anything? Nearest neighbours on held-out phantoms, before and after a few minutes of training,
for both levels and both recipes.

Two kinds of cohort: the classes of one differ in their cells, those of the other hold the same cells in the same
numbers and differ in arrangement alone, in blocks on the grid of patches (`aligned`). Models of the sizes of
`hipt-tiny` train on the cohort of seed 0; patients of the cohort of seed 1 are judged. Level 1 is judged on patches
that are mostly gland or mostly nest by the ground truth, level 2 on regions by the class of their slide. A patch or
region is given the majority label of its five nearest neighbours among those of other patients; intervals are over
patients. Level 2 stands on level 1 trained with `small`. `mean of patches` is the control that must fail where only
arrangement differs. Rows are added one by one; those that are there are not computed again."""
import argparse, json, time
from dataclasses import replace
from pathlib import Path
import cv2, numpy as np, torch
from hipt_nb.core import write_json
from hipt_nb.cohort import read_manifest
from hipt_nb.run import Run
from hipt_nb.dino import RECIPES
from hipt_nb.embed import embed_cohort
from hipt_nb.intervals import estimate as metric_estimate
from hipt_nb.features import read_features
from hipt_nb.hipt import create_hipt
from hipt_nb.phantom import mask_path
from hipt_nb.phantom_cohort import make_cohort
from hipt_nb.scene import MASK_MPP
from hipt_nb.pretrain import load_level, pretrain_grid, pretrain_patches
from hipt_nb.tiling import read_tiles, tile_cohort

PAPER = replace(RECIPES['paper'], out_dim=4096)  # 65,536 prototypes would only make it slower here

def cohort(work, kind, seed, n):
    d = work/f'{kind}{seed}'
    m = read_manifest(make_cohort(d/'cohort', n_slides=n, n_patients=n, size=4096, seed=seed, workers=1, kind=kind,
                                  aligned=True))
    run = Run(d/'run'); tile_cohort(run, m, region_size=1024, min_region=.25, blur='none')
    return m, run

def votes(x, y, who, k=5):
    "Is the majority label of the `k` nearest of other patients right? bool `[N]`"
    x = np.asarray(x, np.float32); d = (x**2).sum(1)[:,None] + (x**2).sum(1) - 2*x@x.T
    d[who[:,None]==who] = np.inf
    near = np.argsort(d, 1, kind='stable')[:,:k]
    return (y[near].mean(1)>.5) == (y==1)

def estimate(right, who):
    "Accuracy and its 95 % interval over patients"
    e = metric_estimate(lambda rows,w: w@right[rows]/w.sum(1), who, 1/len(set(who)))
    return [round(float(o), 3) for o in (e.value, e.low, e.high)]

def patch_labels(row, t):
    "1 where a patch is mostly nest, 0 mostly gland, -1 neither `[M,rows,cols]`"
    mask, n = cv2.imread(str(mask_path(row.path)), cv2.IMREAD_GRAYSCALE), int(t.patch_size*t.mpp/MASK_MPP)
    out = np.full(t.tissue.shape, -1)
    for m,r,c in np.argwhere(t.mask()):
        x, y = (int(o*t.slide_mpp/MASK_MPP) for o in t.patch_xy(m, r, c))
        gland, nest = ((mask[y:y+n,x:x+n]==v).mean() for v in (2, 3))
        if gland+nest>.1 and max(gland, nest)>3*min(gland, nest): out[m,r,c] = nest>gland
    return out

def judge1(m, run, encoder, per_slide=30):
    x, y, who = [], [], []
    for row in m.itertuples():
        f, l = read_features(run.features(encoder,
                                          row.slide_id)), patch_labels(row, read_tiles(run.tiles(row.slide_id)))
        i = np.argwhere(l>=0); i = i[np.random.default_rng(0).permutation(len(i))[:per_slide]]
        x.append(f.patch[tuple(i.T)]); y.append(l[tuple(i.T)]); who += [row.patient]*len(i)
    x, y, who = np.concatenate(x), np.concatenate(y), np.array(who)
    return estimate(votes(x, y, who), who)

def judge2(m, run, encoder, mean=False):
    x, y, who = [], [], []
    for row in m.itertuples():
        f = read_features(run.features(encoder, row.slide_id))
        x.append(np.stack([p[k].mean(0) for p,k in zip(f.patch.astype(np.float32), f.mask())]) if mean else f.region)
        y += [int(row.label==m.label.max())]*len(f); who += [row.patient]*len(f)
    x, y, who = np.concatenate(x), np.array(y), np.array(who)
    return estimate(votes(x, y, who), who)

def judge_cohort(kind, work, minutes, row, there):
    "All rows of one kind of cohort that are not there yet"
    n = dict(arrangement=40, cells=24)[kind]
    (m0, run0), (m1, run1) = cohort(work, kind, 0, n), cohort(work, kind, 1, 40)
    sources = [(r.path, run0.tiles(r.slide_id)) for r in m0.itertuples()]
    def level1(name, recipe, samples, sizes='hipt-tiny'):
        h, start = create_hipt(sizes, seed=0, name=f'level1-{name}'.replace(' ', '-')), time.time()
        if recipe:
            pretrain_patches(sources, h, work/f'{kind}-level1-{name}', recipe=recipe, samples=samples, device='cpu',
                             precision='float32')
            load_level(h.level1, work/f'{kind}-level1-{name}')
        took = round((time.time()-start)/60, 1)
        if there(kind, 1, name, 0): return h  # the base of level 2
        embed_cohort(run1, m1, h)
        row(cohort=kind, level=1, recipe=name, samples=samples, minutes=took, accuracy=judge1(m1, run1, h.name))
        return h
    def level2(name, recipe, samples, seed=0):
        if there(kind, 2, name, seed): return
        h, start = create_hipt('hipt-tiny', seed=seed, name=f'level2-{name}-{seed}'.replace(' ', '-')), time.time()
        h.level1.load_state_dict(base.level1.state_dict()); to = work/f'{kind}-level2-{name}-{seed}'
        if recipe:
            pretrain_grid(paths, h, to, recipe=recipe, samples=samples, seed=seed, device='cpu',
                          precision='float32')
            load_level(h.level2, to)
        took = round((time.time()-start)/60, 1)
        embed_cohort(run1, m1, h)
        row(cohort=kind, level=2, recipe=name, seed=seed, samples=samples, minutes=took,
            accuracy=judge2(m1, run1, h.name))
    level1('random weights', None, 0)
    base = level1('small', RECIPES['small'], minutes*1000)
    embed_cohort(run0, m0, base)
    paths = [run0.features(base.name, r.slide_id) for r in m0.itertuples()]
    if not there(kind, 2, 'mean of patches, of level 1 small', 0):
        row(cohort=kind, level=2, recipe='mean of patches, of level 1 small', samples=0,
            accuracy=judge2(m1, run1, base.name, mean=True))
    level2('random weights', None, 0)
    for seed in (0, 1): level2('small', RECIPES['small'], minutes*8000, seed)
    level2('paper', PAPER, minutes*4000)
    if not there(kind, 1, 'paper', 0): level1('paper', PAPER, minutes*300)   # its views are larger and more
    # does the recipe hold for a wider and deeper network?
    if not there(kind, 1, 'small with ViT-T', 0):
        level1('small with ViT-T', RECIPES['small'], minutes*1000, 'vit-t+vit-96x3')

def main(out, work, minutes, kinds):
    torch.set_num_threads(1)
    out, work = Path(out), Path(work)
    res = json.loads(out.read_text()) if out.exists() else dict(samples={}, rows=[])
    def row(**kw):
        res['rows'].append(kw); write_json(out, res); print(kw, flush=True)
    def there(*key): return any((r['cohort'], r['level'], r['recipe'], r.get('seed', 0))==key for r in res['rows'])
    for kind in kinds: judge_cohort(kind, work, minutes, row, there)

if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--out', default='benchmarks/results/learning-cpu.json', help='JSON file to write')
    p.add_argument('--work', default='/tmp/hipt-learning', help='folder for cohorts and models')
    p.add_argument('--kinds', nargs='+', default=['arrangement','cells'], help='cohorts')
    p.add_argument('--minutes', type=int, default=4, help='about how long each training may take on one core')
    main(**vars(p.parse_args()))
