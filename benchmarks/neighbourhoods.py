"""Real neighbourhoods: are the cells of a whole section that lie beside each other told from the same cells in another
order? The judge of *cells or blocks hidden*, which mosaics cannot be, because their cells share no stain, no blur and
no continuity with their neighbours.

Two frozen breast sections (her2st, Andersson et al. 2021). Level 2 is pretrained on windows of section B4, without
labels. Two questions, each with a logistic regression fitted on windows of B4 and tested on windows of C2, which no
step has seen: a window as it is against the same window whose cells were shuffled *within rows*, or *within blocks* of
2 × 2 cells. Windows are of 8 × 8 patches, all of them tissue; patches of 112 px at .69 µm/px, features of
EfficientNet-Lite0. A mean of patches is at .5 by construction. Windows overlap and come from two sections, so there is
no interval that would hold for other sections: seeds show how far a training is from the next, and no more.

    python benchmarks/neighbourhoods.py --data FOLDER --cache FILE.npz [--arms ...] [--seeds 0 1 2] [--steps 800]
    python benchmarks/neighbourhoods.py --table

One file for each arm and seed; those that are there are not computed again."""
import argparse, json
from pathlib import Path
import numpy as np, torch
from hipt_nb.core import write_json
import mosaics
from mosaics import NOTHING_LEARNED, UNTRAINED, Mosaics, encoded, measure, value

RESULTS = Path(__file__).parent/'results'/'neighbourhoods'
SECTIONS, PATCH, SIDE, TISSUE = ('B4', 'C2'), 112, 8, .5
QUESTIONS = ['rows', 'blocks']
ARMS = [*NOTHING_LEARNED, UNTRAINED, 'grids', 'grids, in blocks']

def features(data, cache):
    "Features of every patch of tissue, and a lattice of patch numbers (-1 where there is none), of both sections"
    from PIL import Image
    Image.MAX_IMAGE_PIXELS, found, n = None, {}, 0
    for name in SECTIONS:
        image = np.asarray(Image.open(Path(data)/f'{name}.jpg').convert('RGB'))
        tissue = Image.open(Path(data)/f'{name}_tissue.png').convert('L').resize(image.shape[1::-1])
        keep = (cells(np.asarray(tissue))>0).mean((2,3,4))>=TISSUE
        found[f'X_{name}'] = encoded(cells(image)[keep])
        found[name] = np.full(keep.shape, -1); found[name][keep] = n+np.arange(keep.sum())
        n += keep.sum()
    np.savez(cache, X=np.concatenate([found.pop(f'X_{s}') for s in SECTIONS]), **found)

def cells(image):
    "Patches `[rows,cols,PATCH,PATCH,C]` of an image"
    rows, cols = (o//PATCH for o in image.shape[:2])
    return image[:rows*PATCH,:cols*PATCH].reshape(rows, PATCH, cols, PATCH, -1).swapaxes(1, 2)

def windows(lattice):
    "Every window `[N,SIDE,SIDE]` that is all tissue"
    w = np.lib.stride_tricks.sliding_window_view(lattice, (SIDE,SIDE)).reshape(-1, SIDE, SIDE)
    return w[(w>=0).all((1,2))]

def within_rows(w, rng): return rng.permuted(w, axis=-1)

def within_blocks(w, rng):
    "The four cells of every block of 2 × 2 in another order"
    half = SIDE//2
    b = w.reshape(-1, half, 2, half, 2).swapaxes(2, 3).reshape(-1, 4)
    return rng.permuted(b, axis=1).reshape(-1, half, half, 2, 2).swapaxes(2, 3).reshape(w.shape)

class Section(Mosaics):
    "Windows of one section"
    def slide(self, unit): return SECTIONS[0]

class Data:
    "What a seed makes of the sections: windows to pretrain on, and twins for probe and test"
    def __init__(self, cache, seed, count=200):
        d = np.load(cache)
        self.bank, self.n = d['X'].astype(np.float32), SIDE
        own, other = (windows(d[s]) for s in SECTIONS)
        rng = np.random.default_rng(seed)
        self.regions = rng.permutation(own)
        self.probe, self.test = ({q: twins(rng, w, q, count) for q in QUESTIONS} for w in (own, other))
        x = self.bank[np.unique(own)]
        self.standard = (self.bank-x.mean(0))/(x.std(0)+1e-3)

    def source(self): return Section(self.bank, self.regions)

def twins(rng, w, question, count):
    "Windows `[count,1,SIDE,SIDE]` and their classes; 2i is as it was (class 0), 2i+1 the same in another order"
    real = w[rng.choice(len(w), count//2, replace=len(w)<count//2)]
    moved = (within_rows if question=='rows' else within_blocks)(real, rng)
    return np.stack([real, moved], 1).reshape(count, 1, SIDE, SIDE), np.arange(count)%2

def found():
    "(arm, steps) → results, seed by seed"
    rows = [json.loads(p.read_text()) for p in RESULTS.glob('*.json')]
    rows.sort(key=lambda r: (ARMS.index(r['arm']), r['steps'], r['seed']))
    res = {}
    for r in rows: res.setdefault((r['arm'], r['steps']), []).append(r)
    return res

def table():
    "A row for each arm: AUC of both questions, every seed"
    print('| arm | steps | seeds | '+' | '.join(f'shuffled within {q}' for q in QUESTIONS)+' |\n'+'|---'*5+'|')
    for (arm,steps),rs in found().items():
        cells = [', '.join(f'{value(r, q):.2f}' for r in rs) for q in QUESTIONS]
        print(f"| {arm} | {steps or ''} | {', '.join(str(r['seed']) for r in rs)} | {' | '.join(cells)} |")

def main(data, cache, arms, seeds, steps):
    torch.set_num_threads(1)
    if not Path(cache).exists(): features(data, cache)
    RESULTS.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        made = Data(cache, seed)
        for arm in arms:
            trained = arm in mosaics.ARMS
            name = '_'.join([arm, *[f'{steps} steps']*trained, f'seed {seed}'])
            path = RESULTS/(name.replace(',', '').replace(' ', '-')+'.json')
            if path.exists(): continue
            res = dict(arm=arm, seed=seed, steps=steps if trained else 0, windows=len(made.regions))
            write_json(path, res | measure(arm, made, seed, steps))
            print(seed, arm, {q: value(json.loads(path.read_text()), q) for q in QUESTIONS}, flush=True)

if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--data', help='folder with B4.jpg, B4_tissue.png, C2.jpg, C2_tissue.png')
    p.add_argument('--cache', help='features, made where they are missing (needs efficientnet-lite-pytorch)')
    p.add_argument('--arms', nargs='+', default=ARMS, choices=ARMS)
    p.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2], choices=[0, 1, 2])
    p.add_argument('--steps', type=int, default=800)
    p.add_argument('--table', action='store_true', help='print the table and run nothing')
    a = vars(p.parse_args())
    if a.pop('table'): table()
    else: main(**a); table()
