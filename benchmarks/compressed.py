"""Features with and without gzip: bytes, time to write, windows a second, and what training pays for it

    python benchmarks/compressed.py [--out benchmarks/results/compressed-cpu.json]

One region a chunk. Files are warm in the page cache, and plain and compressed ones take turns; times are those of the
processor, of one thread. Tokens are those of an untrained `hipt-4k` on random pixels with smooth parts, as float16,
with an edge of tissue through every region, so that a given share of the patches is background and zero.
"""
import itertools, argparse, json, os, platform, tempfile, time
from pathlib import Path
import h5py, numpy as np, torch
from hipt_nb.baselines import ABMIL
from hipt_nb.core import write_h5
from hipt_nb.features import Bag, Features, StoredPatches, sample_patches
from hipt_nb.samples import GridSource

ENDS = dict(plain=(), gzip=('patch',))

def slide(name, seed, regions, dim, share):
    "Features of a slide: neighbours are alike, and a share of every region is tissue"
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(regions, 1, 1, dim)) + rng.normal(size=(regions, 16, 16, dim))
    y, c = np.mgrid[:16,:16]-7.5
    angle = rng.uniform(0, 2*np.pi, regions)[:,None,None]
    side = np.cos(angle)*y + np.sin(angle)*c
    mask = side <= np.quantile(side, share, (1, 2), keepdims=True)
    tokens = np.where(mask[...,None], x, 0).astype(np.float16)
    at = np.stack(np.divmod(np.arange(regions), 8), 1)*8192
    made = dict(encoder_name='x', level1_sha256='a', min_tissue=.1, sizes=[256], patch_size=256, mpp=.5, slide_mpp=.25)
    return Features(name, tokens, None, at.astype(np.int64), mask.astype(np.float16), made)

def write(path, f, packed):
    write_h5(path, dict(patch=f.patch, coords=f.coords, tissue=f.tissue), dict(slide_id=f.slide_id, made_by=f.made_by),
             packed)

def alternate(fns, rounds=5):
    "Median seconds of the processor of several functions that take turns"
    def once(fn):
        begun = time.process_time()
        fn()
        return time.process_time()-begun
    taken = [[once(fn) for fn in fns] for _ in range(rounds+1)]
    return np.median(taken[1:], 0).tolist()

def measure(tmp, dim, share, slides=4, regions=32):
    feats = [slide(f's{i}', i, regions, dim, share) for i in range(slides)]
    paths = {k: [tmp/k/f'{f.slide_id}.h5' for f in feats] for k in ENDS}
    writing = alternate([lambda k=k: [write(p, f, ENDS[k]) for p,f in zip(paths[k], feats)] for k in ENDS], 2)
    size = {k: sum(p.stat().st_size for p in paths[k]) for k in ENDS}
    order = np.random.default_rng(0).integers(0, slides*regions, 64)
    res = dict(dim=dim, tissue=share, bytes_of_plain=size['gzip']/size['plain'],
               write_ms_a_region=[1e3*t/slides/regions for t in writing])
    for name,kw in dict(regions={}, windows=dict(anywhere=True)).items():
        sources = [GridSource(paths[k], cache_mb=0, max_open=slides, **kw) for k in ENDS]
        where = np.stack([order % len(sources[0].counts), np.zeros(64, int)], 1)
        res[f'{name}_ms'] = [1e3*t/64 for t in alternate([lambda s=s, w=where: s(w) for s in sources])]
    bags = [[Bag(f.slide_id, f.slide_id, 'a', StoredPatches((p, f.mask())), torch.ones(int(f.mask().sum()), dtype=bool))
             for p,f in zip(paths[k], feats)] for k in ENDS]
    epochs = itertools.count(1)
    def sample(bags):
        epoch = next(epochs)
        for b in bags: sample_patches(b, 4096, 0, epoch).x.float()
    res['patches_of_a_slide_ms'] = [1e3*t/slides for t in alternate([lambda b=b: sample(b) for b in bags], 4)]
    return res | dict(steps(dim))

def steps(dim):
    "Milliseconds that training itself takes: a step of patch ABMIL on 4,096 patches"
    model = ABMIL(dim, 2)
    x = torch.randn(1, 4096, dim)
    def step(): model(x, torch.ones(1, 4096, dtype=bool)).sum().backward()
    yield 'abmil_step_ms', 1e3*alternate([step], 3)[0]

if __name__=='__main__':
    p = argparse.ArgumentParser()
    p.add_argument('--out', default='benchmarks/results/compressed-cpu.json')
    a = p.parse_args()
    torch.set_num_threads(1)
    res = dict(machine=dict(cpu=platform.processor() or platform.machine(), cores=os.cpu_count(), h5py=h5py.__version__,
                            torch=torch.__version__), order=[*ENDS], rows=[])
    for dim in (384, 1536):
        for share in (1., .6):
            with tempfile.TemporaryDirectory() as d: res['rows'].append(row := measure(Path(d), dim, share))
            print(row, flush=True)
            Path(a.out).write_text(json.dumps(res, indent=1)+'\n')
