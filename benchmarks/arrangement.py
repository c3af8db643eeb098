"""Which self-supervised loss learns how patches are arranged? Grids whose two classes hold the same patches and differ
only in where they lie.

A grid has 10 × 10 cells of four kinds, 25 of each. In a *zoned* grid every kind fills one quadrant, in a *mingled*
one all cells are shuffled; so any average over cells is the same in both classes. Each loss trains the same small
ViT on 2000 unlabelled grids. Then, with the weights frozen, class tokens of 400 labelled grids are given to a
logistic regression and to five nearest neighbours, and 400 others are tested. Seeds of training, labelled and test
grids are fixed below and differ. Results are added to the file arm by arm; arms that are there are not run again."""
import argparse, json, time
from dataclasses import replace
from pathlib import Path
import numpy as np, torch
from fastai.callback.core import Callback
from hipt_nb.core import write_json
from hipt_nb.dino import RECIPES
from hipt_nb.intervals import estimate, pair_rate
from hipt_nb.metrics import class_auc
from hipt_nb.loop import dino_learner
from hipt_nb.pretrain import Pretraining
from hipt_nb.vit import grid_vit

SIDE, KINDS, DIM = 10, 4, 32
TRAIN, LABELLED, TEST = 101, 202, 303

def make_grids(n, seed):
    "`n` grids, half of each class: features `[n,32,10,10]`, labels"
    rng = np.random.default_rng(seed)
    kinds = np.random.default_rng(0).normal(size=(KINDS, DIM))
    quadrant = (np.arange(SIDE)//(SIDE//2))[:,None]*2 + np.arange(SIDE)//(SIDE//2)
    x, y = np.empty((n, SIDE, SIDE, DIM), np.float32), np.arange(n)%2
    for i in range(n):
        k = rng.permutation(KINDS)[quadrant]
        if y[i]: k = rng.permutation(k.ravel()).reshape(k.shape)
        x[i] = kinds[k] + .7*rng.normal(size=(SIDE, SIDE, DIM))
    return torch.from_numpy(x).permute(0, 3, 1, 2).contiguous(), y

class Batches:
    "Shuffled batches of grids with their sample numbers"
    def __init__(self, x, steps, bs, seed): self.x,self.steps,self.bs,self.rng = x,steps,bs,np.random.default_rng(seed)
    def __len__(self): return self.steps
    def __iter__(self):
        for it in range(self.steps):
            i = self.rng.permutation(len(self.x))[:self.bs]
            yield self.x[i], torch.ones(self.bs, SIDE, SIDE, dtype=torch.bool), torch.arange(it*self.bs, (it+1)*self.bs)

class NoDINO(Callback):
    "Leave only the terms that are added later"
    order = 5
    def after_loss(self): self.learn.loss_grad = self.learn.loss_grad*0

paper, small = replace(RECIPES['paper'], out_dim=4096), replace(RECIPES['small'], masked_tokens=1.)
plain = replace(small, masked_tokens=0., use_bn=False)
ARMS = {
    'random weights': None,
    'paper (4096 prototypes)': (paper, ()),
    'DINO as in small, no batch norm, no masked tokens': (plain, ()),
    'the same, with batch norm': (replace(plain, use_bn=True), ()),
    'the same, with Sinkhorn and KoLeo': (replace(plain, centering='sinkhorn', koleo_grids=.1), ()),
    'masked tokens alone': (small, (NoDINO(),)),
    'DINO, batch norm, masked tokens': (small, ()),
    'DINO, batch norm, masked tokens x 10': (replace(small, masked_tokens=10.), ()),
    'small: DINO, batch norm, masked tokens x 30': (replace(small, masked_tokens=30.), ()),
    'DINO without batch norm, masked tokens': (replace(small, use_bn=False), ()),
    'DINO with Sinkhorn, masked tokens': (replace(small, use_bn=False, centering='sinkhorn'), ()),
    'DINO with Sinkhorn and KoLeo, masked tokens': (replace(small, use_bn=False, centering='sinkhorn', koleo_grids=.1),
                                                    ()),
}

@torch.no_grad()
def tokens(vit, x): return torch.cat([vit(o) for o in x.split(100)]).numpy()

def probe(vit):
    "AUC of a linear probe and accuracy of five nearest neighbours on held-out grids, with 95 % intervals"
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    (xa, ya), (xb, yb) = make_grids(400, LABELLED), make_grids(400, TEST)
    a, b = tokens(vit.eval(), xa), tokens(vit, xb)
    p = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)).fit(a, ya).predict_proba(b)[:,1]
    q = KNeighborsClassifier(5).fit(a, ya).predict_proba(b)[:,1]
    grids, right = np.arange(len(yb)), (q>.5)==(yb==1)
    auc_rate = lambda value: pair_rate([(yb==1).sum()], [(yb!=1).sum()], value)
    found = dict(probe_auc=estimate(lambda rows,w: class_auc(yb[rows]==1, p[rows], w), grids, auc_rate, labels=yb),
                 knn_accuracy=estimate(lambda rows,w: w@right[rows]/w.sum(1), grids, 1/len(yb)))
    return {k: [round(float(v), 3) for v in (e.value, e.low, e.high)] for k,e in found.items()}

def run(arm, seed, steps, bs):
    torch.manual_seed(seed)
    vit = grid_vit(DIM, 48, 2, 3, grid=SIDE)
    if ARMS[arm] is None: return probe(vit)
    recipe, cbs = ARMS[arm]
    x, _ = make_grids(2000, TRAIN)
    settings = Pretraining(recipe=recipe, batch_size=bs, seed=seed, device='cpu', precision='float32')
    learn = dino_learner(Batches(x, steps, bs, seed), vit, settings, steps, cbs=cbs)
    t = time.time(); learn.fit(1)
    last = learn.monitor.rows[-20:]
    mean = lambda k: round(float(np.mean([r[k] for r in last])), 3) if k in last[0] else None
    return dict(probe(learn.teacher.backbone), loss=mean('loss'), ln_k=round(float(np.log(recipe.out_dim)), 3),
                teacher_entropy=mean('teacher_entropy'), teacher_spread=mean('teacher_spread'),
                masked_mse=mean('masked_mse'), minutes=round((time.time()-t)/60, 1))

def main(out, seeds, steps, batch_size):
    out = Path(out)
    res = (json.loads(out.read_text()) if out.exists()
           else dict(grids=f'{SIDE} x {SIDE}', steps=steps, batch_size=batch_size, rows=[]))
    for seed in range(seeds):
        for arm in ARMS:
            if any(r['arm']==arm and r['seed']==seed for r in res['rows']): continue
            res['rows'].append(dict(arm=arm, seed=seed, **run(arm, seed, steps, batch_size)))
            write_json(out, res); print(res['rows'][-1], flush=True)

if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--out', default='benchmarks/results/arrangement-cpu.json', help='JSON file to write')
    p.add_argument('--seeds', type=int, default=2); p.add_argument('--steps', type=int, default=500)
    p.add_argument('--batch-size', type=int, default=64)
    main(**vars(p.parse_args()))
