"""Reading features in place: random regions beside a copy, a cohort's import, and the share of a training step

    python benchmarks/linked.py [--out benchmarks/results/linked.json]

Files are warm in the page cache, so this measures the way to the numbers and not the disk; there are more of them than
the processor's caches hold. Times are those of the processor, of one thread, the median of rounds in which copy and
link take turns. `share` is the time of the copy over that of the linked file, through `GridSource`, as pretraining
reads; `rows` is the same without it.
"""
import argparse, json, os, platform, resource, shutil, tempfile, time
from pathlib import Path
import h5py, numpy as np, pandas as pd, torch
from hipt_nb.features import open_tokens
from hipt_nb.foreign import FlatFeatures
from hipt_nb.layouts import import_features_cohort, toy_files
from hipt_nb.run import Run
from hipt_nb.pretrain import pretrain_grid
from hipt_nb.samples import GridSource
from hipt_nb.vit import grid_vit

def slide(slide_id, side, dim, dtype=np.float32, seed=0):
    "A square of `side` × `side` patches, column by column as TRIDENT and CLAM list them"
    rng = np.random.default_rng(seed)
    c, r = (o.ravel() for o in np.mgrid[:side,:side])
    x = rng.standard_normal((side*side, dim), dtype=np.float32).astype(dtype)
    return FlatFeatures(slide_id, x, np.stack([c, r], 1)*512, 512., .25, 'uni2-h', 256)

def contiguous(folder, f):
    folder.mkdir(parents=True, exist_ok=True)
    with h5py.File(folder/f'{f.slide_id}.h5', 'w') as h:
        h['features'], h['coords'] = f.x, f.coords
        h.attrs.update(side=512, slide_mpp=.25, patch_size=256)

def gzipped(folder, f):
    folder.mkdir(parents=True, exist_ok=True)
    with h5py.File(folder/f'{f.slide_id}.h5', 'w') as h:
        h.create_dataset('features', data=f.x, compression='gzip', compression_opts=1, chunks=(64, f.x.shape[1]))
        h['coords'] = f.coords
        h.attrs.update(side=512, slide_mpp=.25, patch_size=256)

KINDS = dict(contiguous=contiguous, trident=lambda d, f: toy_files(d, f, 'trident'),
             pt=lambda d, f: toy_files(d, f, 'slide2vec'), gzip=gzipped)

def manifest_of(ids): return pd.DataFrame(dict(path=[f'gone/{i}.svs' for i in ids], slide_id=ids, patient=ids))

def per_second(*reads, n, repeats=7):
    "Median over rounds of the reads in a second of processor time, of each"
    def once(read):
        begun = time.process_time()
        for i in range(n): read(i)
        return n/(time.process_time()-begun)
    rounds = [[once(read) for read in reads] for _ in range(repeats+1)]
    return np.median(rounds[1:], 0).tolist()

def windows(tmp, dtype, slides=8, side=64, dim=1536, n=64):
    "Regions a second from a copy and from each kind of file"
    ids, res = [f's{i}' for i in range(slides)], {}
    order = np.random.default_rng(1).integers(0, 10**6, n)
    for kind,write in KINDS.items():
        base, reads = tmp/kind, []
        for i,s in enumerate(ids): write(base/'files', slide(s, side, dim, dtype, i))
        for link in (False, True):
            run = Run(base/f'run{link}')
            import_features_cohort(run, manifest_of(ids), base/'files', 'uni2-h', 16, .25, link=link)
            paths = [run.features('uni2-h', s) for s in ids]
            source = GridSource(paths, cache_mb=0, max_open=slides)
            tokens = [open_tokens(p) for p in paths]
            regions = len(tokens[0])
            def rows(i, tokens=tokens, regions=regions): return tokens[order[i]%slides][order[i]//slides%regions]
            def whole(i, source=source): return source(np.array([[order[i]%len(source), 0]]))
            reads += [rows, whole]
        a, b, c, d = per_second(*reads, n=n)
        res[kind] = dict(copy_rows=a, linked_rows=c, rows=c/a, copy=b, linked=d, share=d/b)
        print(dtype.__name__, kind, {k: round(v, 2) for k,v in res[kind].items()}, flush=True)
        shutil.rmtree(base)
    return res

def cohort(tmp, n=3000, side=24, dim=16):
    "Seconds and peak memory of the import of many thin slides by `--link`"
    ids = [f's{i:04}' for i in range(n)]
    flat = slide('x', side, dim)
    for s in ids:
        flat.slide_id = s
        toy_files(tmp/'many', flat, 'trident')
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/2**20
    begun = time.perf_counter()
    done = import_features_cohort(Run(tmp/'run'), manifest_of(ids), tmp/'many', 'uni2-h', 16, .25, link=True)
    return dict(slides=done['done'], seconds=time.perf_counter()-begun, peak_gb=resource.getrusage(
        resource.RUSAGE_SELF).ru_maxrss/2**20, peak_gb_before=before)

def step(tmp, batch=8, slides=1, side=64, dim=1536):
    "Share of a step of level-2 pretraining (6 blocks of 192, as in HIPT) that reading its regions takes on one thread"
    ids = [f's{i}' for i in range(slides)]
    for i,s in enumerate(ids): toy_files(tmp/'few', slide(s, side, dim, np.float32, i), 'trident')
    run = Run(tmp/'run of few')
    import_features_cohort(run, manifest_of(ids), tmp/'few', 'uni2-h', 16, .25, link=True)
    paths = [run.features('uni2-h', s) for s in ids]
    source = GridSource(paths, cache_mb=0)
    where = np.stack([np.random.default_rng(0).integers(0, len(source), batch), np.zeros(batch, int)], 1)
    reading = 1/per_second(lambda i: source(where), n=3)[0]
    def seconds(steps):
        vit = grid_vit(dim, 192, depth=6, heads=6)
        begun = time.process_time()
        pretrain_grid(paths, vit, tmp/f'out{steps}', samples=steps*batch, batch_size=batch, device='cpu',
                      precision='float32')
        return time.process_time()-begun
    step = (seconds(3)-seconds(1))/2
    return dict(batch=batch, read_seconds=reading, step_seconds=step, share=reading/step)

if __name__=='__main__':
    p = argparse.ArgumentParser()
    p.add_argument('--out', default='benchmarks/results/linked.json')
    a = p.parse_args()
    torch.set_num_threads(1)
    res = dict(machine=dict(cpu=platform.processor() or platform.machine(), cores=os.cpu_count(),
                            torch=torch.__version__, h5py=h5py.__version__))
    with tempfile.TemporaryDirectory() as d:
        res['import of 3,000'] = cohort(Path(d))
        print(res['import of 3,000'], flush=True)
        for dtype in (np.float16, np.float32): res[dtype.__name__] = windows(Path(d), dtype)
        res['step'] = step(Path(d))
        print(res['step'], flush=True)
    Path(a.out).write_text(json.dumps(res, indent=1)+'\n')
