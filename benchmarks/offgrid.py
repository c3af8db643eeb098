"""Why level 2 fails in the demo: its slides with a *perfect* level 1, and what chance is in so small a cohort.

A patch's features are the shares of stroma, gland and nest in it, known from the plan of the slide, turned into 96
numbers; a vector for each slide stands in for its stain, noise for all else. The slides are planned like the demo's
and not rendered, so this takes minutes. Development seeds alone. The probe is a logistic regression on class token
and mean of tokens, fitted on 16 to 100 slides and tested on all others, mean of 20 random splits.

    python benchmarks/offgrid.py chance                               # features that know nothing, by the demo's folds
    python benchmarks/offgrid.py level2 [--stain 1] [--steps 1500] [--anywhere] [--shift 1]
    python benchmarks/offgrid.py level2 --within --components 4 --clusters 8   # components of what differs in regions

Values in `results/demo_offgrid.json`; what they say stands in `mosaics.md`."""
import argparse, tempfile
from dataclasses import replace
from types import SimpleNamespace
import numpy as np, pandas as pd, torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from hipt_nb.dino import RECIPES
from hipt_nb.phantom_cohort import plan_cohort
from hipt_nb.pretrain import Pretraining, load_level, train_level
from hipt_nb.probe import mean_of_patches
from hipt_nb.samples import GridSource, _reading
from hipt_nb.scene import layout_blocks
from hipt_nb.splits import patient_folds
from hipt_nb.vit import grid_vit

CELLS, SIDE = 32, 4      # map cells along a patch of 128 µm; patches along a region
MIX = np.random.default_rng(5).normal(size=(3, 96))

def shares(row):
    "Shares of glass, stroma, gland and nest in every patch of a slide `[16,16,4]`"
    labels = layout_blocks(row['label'], row['make']['seed'], 2048).labels
    n = len(labels)//CELLS
    patches = labels[:n*CELLS,:n*CELLS].reshape(n, CELLS, n, CELLS).swapaxes(1, 2).reshape(n, n, -1)
    return np.stack([(patches==k).mean(-1) for k in range(4)], -1)

def features(f, number, stain, noise):
    "What a perfect level 1 would give, and where there is tissue"
    mask, x = f[...,0]<.75, (f[...,1:]-[.5,.2,.2])/[.2,.15,.15]@MIX
    x += stain*3**.5*np.random.default_rng([11, number]).normal(size=96)
    x += noise*np.random.default_rng([9, number]).normal(size=x.shape)
    return x.astype(np.float32)*mask[...,None], mask

def windows(x, mask, step):
    "Windows of four cells with tissue, `step` cells apart"
    starts = range(0, len(x)+1-SIDE, step)
    at = [np.s_[r:r+SIDE, c:c+SIDE] for r in starts for c in starts if mask[r:r+SIDE, c:c+SIDE].mean()>=.25]
    return np.stack([x[o] for o in at]), np.stack([mask[o] for o in at])

class InMemory(GridSource):
    "Regions in memory, in place of features files"
    def __init__(self, slides, step):
        parts = [windows(*s, step) for s in slides]
        self.x, self.mask = (torch.from_numpy(np.concatenate(o)) for o in zip(*parts))
        self.of = np.repeat(np.arange(len(parts)), [len(x) for x,_ in parts])
        self.units = [(i, 0, 0, 0) for i in self.of]
        self.level, self.broken, self.side, self.counts = 2, set(), (SIDE,)*2, np.ones(len(self.x), int)
    params = property(lambda self: dict(regions=len(self.x)))
    def slide(self, unit): return f'slide {self.of[unit]}'
    def __call__(self, where):
        return self.scaled(self.x[where[:,0]].permute(0, 3, 1, 2).contiguous(), self.mask[where[:,0]])

class Within(InMemory):
    "Reads the principal components of what differs *within* regions, all on one scale, instead of standardised ones"
    def standardise(self, vit, n=1000, components=0):
        x, mask = self(self.some(n))
        x, tissue = x.movedim(1, -1), mask[...,None].float()
        self.mean, self.std = x[mask].mean(0), x[mask].std(0, correction=0).clamp(min=1e-3)
        z = (x-self.mean)/self.std
        z = (z-(z*tissue).sum((1, 2), keepdim=True)/tissue.sum((1, 2), keepdim=True))[mask]
        v = torch.linalg.svd(z[:10_000], full_matrices=False)[2][:components].T
        self.turn = v/(z@v).square().mean().sqrt()
        return _reading(vit, vit.phi[0].weight[:,:components])

def probed(z, y, sizes=(16, 36, 60), times=20):
    "AUC by the number of slides that the probe is fitted on"
    rng, res = np.random.default_rng(0), {}
    for n in sizes:
        aucs = []
        for _ in range(times):
            fit = np.concatenate([rng.permutation(np.flatnonzero(y==k))[:n//2] for k in (0, 1)])
            test, mean, std = np.setdiff1d(np.arange(len(y)), fit), z[fit].mean(0), z[fit].std(0)+1e-6
            model = LogisticRegression(C=.1, max_iter=1000).fit((z[fit]-mean)/std, y[fit])
            aucs.append(roc_auc_score(y[test], model.decision_function((z[test]-mean)/std)))
        res[n] = round(float(np.mean(aucs)), 3)
    return res

def cosines(slides, mean, std):
    "Mean cosine of neighbouring patches, standardised within their region"
    out = []
    for x,mask in (windows(*s, SIDE) for s in slides):
        z = (x-mean)/std
        z -= z.mean((1, 2), keepdims=True)
        z = z/(np.linalg.norm(z, axis=-1, keepdims=True)+1e-9)*mask[...,None]
        out.append([(z[:,1:]*z[:,:-1]).sum(-1).mean()+(z[:,:,1:]*z[:,:,:-1]).sum(-1).mean()])
    return np.array(out)

@torch.no_grad()
def described(vit, slides):
    parts = ([torch.from_numpy(o) for o in windows(*s, SIDE)] for s in slides)
    return np.stack([torch.cat(vit.class_and_mean(x.permute(0, 3, 1, 2), m), -1).mean(0).numpy() for x,m in parts])

def level2(stain, noise, steps, anywhere, shift, n_test, within, components, clusters):
    "The demo's level 2 above a perfect level 1"
    torch.set_num_threads(1)
    make = lambda n, seed, start: [features(shares(r), start+i, stain, noise)
                                   for i,r in enumerate(plan_cohort(n, n, seed, 'arrangement'))]
    y = np.array([r['label']=='zoned' for r in plan_cohort(n_test, n_test, 500, 'arrangement')]).astype(int)
    unlabelled, slides = make(16, 1000, 5000), make(n_test, 500, 0)
    cells = np.concatenate([x[m] for x,m in unlabelled])
    sizes = [n for n in (16, 36, 60) if n<n_test]
    print('cosine of neighbours', probed(cosines(slides, cells.mean(0), cells.std(0)), y, sizes), flush=True)
    recipe = RECIPES['grids']
    recipe = replace(recipe, grids=replace(recipe.grids, shift=shift), components=components,
                     loss=replace(recipe.loss, n_clusters=clusters))
    torch.manual_seed(0)
    vit = grid_vit(96, 96, 3, 3, positions='sincos', readout='both').eval()
    print('random', probed(described(vit, slides), y, sizes), flush=True)
    with tempfile.TemporaryDirectory() as out:
        t = Pretraining(recipe, samples=steps*32, batch_size=32, device='cpu', precision='float32', anyway=True)
        train_level((Within if within else InMemory)(unlabelled, 1 if anywhere else SIDE), vit, out, t)
        load_level(vit, out)
    print('grids', probed(described(vit, slides), y, sizes))

def chance(n_slides=24, n_patients=18, cohorts=100):
    "AUC of features that hold the patient and nothing else, by the folds of the demo"
    aucs = []
    for seed in range(cohorts):
        rng, rows = np.random.default_rng(seed), plan_cohort(n_slides, n_patients, seed, 'arrangement')
        df = pd.DataFrame([{k: r[k] for k in ('slide_id', 'patient', 'label')} for r in rows])
        own = {p: rng.normal(size=96) for p in dict.fromkeys(df.patient)}
        bags = [SimpleNamespace(x=(own[r.patient]+.5*rng.normal(size=96))[None], **r._asdict())
                for r in df.itertuples(index=False)]
        p = mean_of_patches(bags, patient_folds(df, 3, seed=seed), ['mingled', 'zoned']).groupby('patient')
        aucs.append(roc_auc_score(p.label.first().isin([1, 'zoned']), p.prob_zoned.mean()))
    a = np.array(aucs)
    print(f'{n_slides} slides of {n_patients} patients: mean {a.mean():.3f}, sd {a.std():.3f}, '
          f'below .2 {(a<.2).mean():.2f}, above .8 {(a>.8).mean():.2f}')

if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = p.add_subparsers(dest='what', required=True)
    sub.add_parser('chance')
    l = sub.add_parser('level2')
    l.add_argument('--stain', type=float, default=1., help='size of the difference between slides')
    l.add_argument('--noise', type=float, default=.3)
    l.add_argument('--steps', type=int, default=375, help='of 32 regions; the demo has 375')
    l.add_argument('--anywhere', action='store_true', help='pretrain on windows at every cell, in place of regions')
    l.add_argument('--shift', type=float, default=0., help='augmentation by differences between slides')
    l.add_argument('--n-test', type=int, default=80, help='labelled slides')
    l.add_argument('--within', action='store_true', help='components of what differs within regions, on one scale')
    l.add_argument('--components', type=int, default=32)
    l.add_argument('--clusters', type=int, default=16)
    a = vars(p.parse_args())
    dict(chance=chance, level2=level2)[a.pop('what')](**a)
