"""From a slide on disk to features on disk: ours beside the ways of TRIDENT and CLAM, for one slide and for twenty.

Their ways are written from their descriptions, not with their code. Both find tissue on a small picture, lay a grid of
256-px patches, read one patch at a time through OpenSlide in the workers of a DataLoader, and compute in float32, all
tokens in the last block. TRIDENT-like: Otsu's threshold, patches that touch tissue at all, one file at the end.
CLAM-like: saturation, its four points of a patch, features appended to a file batch by batch, which is then read again
and written as `.pt`. Their encoder is the same ViT-S with torch's fused attention, that is as fast as it is here.
Ours: `tile_cohort` and `embed_cohort` as `hipt tile` and `hipt embed` call them, choice of arithmetic and batch
included, with level 2, which the others do not have. That choice computes some 200 to 300 patches, little beside a
real slide and most of the time of one of 15 patches: do not judge by slides as small as those of `--quick`. Each takes
the patches that its own rule gives, so the number of patches is in the result, and the ratio for a patch too.

Slides are phantoms (JPEG tiles, two levels). Reading: the share of time that a way waits for pixels."""
import json, os, tempfile, time
from contextlib import contextmanager
from pathlib import Path
import cv2, h5py, numpy as np, openslide, pandas as pd, torch
from torch.utils.data import DataLoader, Dataset
import hipt_nb.embed as embed_module
from hipt_nb.cohort import read_manifest
from hipt_nb.embed import embed_cohort
from hipt_nb.hipt import create_hipt
from hipt_nb.phantom import make_slide
from hipt_nb.run import Run
from hipt_nb.tiling import tile_cohort
from timing import alternate, arguments, keep, machine, ratio

PATCH, REGION = 256, 1024

class Waiting:
    "Time that was spent waiting for pixels, by the clock on the wall"
    def __init__(self): self.seconds, self.began = 0., time.perf_counter()
    def over(self, items):
        it = iter(items)
        while True:
            start = time.perf_counter()
            try: x = next(it)
            except StopIteration: return
            finally: self.seconds += time.perf_counter()-start
            yield x
    @property
    def share(self): return self.seconds/(time.perf_counter()-self.began)

# The others

def small(path):
    "A picture of the slide of at most 1,024 px, and level-0 pixels of one of its pixels"
    with openslide.OpenSlide(str(path)) as s:
        im = np.asarray(s.get_thumbnail((1024, 1024)).convert('RGB'))
        return im, s.dimensions[0]/im.shape[1], s.dimensions

def corners(size): return [(x, y) for y in range(0, size[1]-PATCH+1, PATCH) for x in range(0, size[0]-PATCH+1, PATCH)]

def otsu_coords(path):
    "Patches that touch tissue"
    im, scale, size = small(path)
    grey = cv2.medianBlur(cv2.cvtColor(im, cv2.COLOR_RGB2GRAY), 7)
    mask = cv2.threshold(grey, 0, 255, cv2.THRESH_BINARY_INV+cv2.THRESH_OTSU)[1]>0
    n = max(1, round(PATCH/scale))
    return [(x, y) for x,y in corners(size) if mask[int(y/scale):int(y/scale)+n, int(x/scale):int(x/scale)+n].any()]

def four_point_coords(path):
    "Patches of which one of four points between centre and corners is in a contour"
    im, scale, size = small(path)
    mask = cv2.medianBlur(cv2.cvtColor(im, cv2.COLOR_RGB2HSV)[...,1], 7)>8
    mask = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((4, 4), np.uint8))
    found = [c for c in cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0] if cv2.contourArea(c)>50]
    def inside(x, y):
        points = [((x+PATCH/2+dx)/scale, (y+PATCH/2+dy)/scale) for dx in (-64, 64) for dy in (-64, 64)]
        return any(cv2.pointPolygonTest(c, p, False)>=0 for c in found for p in points)
    return [c for c in corners(size) if inside(*c)]

class Patches(Dataset):
    "One `read_region` a patch"
    def __init__(self, path, coords): self.path, self.coords, self.slide = str(path), coords, None
    def __len__(self): return len(self.coords)
    def __getitem__(self, i):
        if self.slide is None: self.slide = openslide.OpenSlide(self.path)
        im = np.asarray(self.slide.read_region(self.coords[i], 0, (PATCH, PATCH)).convert('RGB'))
        return (torch.from_numpy(im.copy()).permute(2, 0, 1).float()/255-.5)/.5, torch.tensor(self.coords[i])

def batches(path, coords, workers): return DataLoader(Patches(path, coords), batch_size=256, num_workers=workers)

def trident_like(path, encoder, out, workers, waiting):
    coords = otsu_coords(path)
    found = [encoder(x) for x,_ in waiting.over(batches(path, coords, workers))]
    with h5py.File(out/f'{path.stem}.h5', 'w') as f: f['features'], f['coords'] = torch.cat(found).numpy(), coords
    return len(coords)

def clam_like(path, encoder, out, workers, waiting):
    coords, file = four_point_coords(path), out/f'{path.stem}.h5'
    file.unlink(missing_ok=True)
    with h5py.File(file, 'a') as f:
        for x,xy in waiting.over(batches(path, coords, workers)):
            y = encoder(x).numpy()
            if 'features' not in f:
                f.create_dataset('features', data=y, maxshape=(None, y.shape[1]), chunks=(1, y.shape[1]))
                f.create_dataset('coords', data=xy.numpy(), maxshape=(None, 2), chunks=(1, 2))
                continue
            for k,v in (('features', y), ('coords', xy.numpy())):
                f[k].resize(len(f[k])+len(v), 0)
                f[k][-len(v):] = v
    with h5py.File(file) as f: torch.save(torch.from_numpy(f['features'][:]), out/f'{path.stem}.pt')
    return len(coords)

# Ours

@contextmanager
def watched(waiting):
    "Where slides are read, time is counted"
    read = embed_module.prefetch
    embed_module.prefetch = lambda *args, **kwargs: waiting.over(read(*args, **kwargs))
    try: yield
    finally: embed_module.prefetch = read

def ours(paths, hipt, folder, precision, waiting):
    run = Run(tempfile.mkdtemp(dir=folder))
    pd.DataFrame(dict(path=[str(p) for p in paths])).to_csv(run.root/'slides.csv', index=False)
    manifest = read_manifest(run.root/'slides.csv')
    tile_cohort(run, manifest, region_size=REGION, workers=1)
    with watched(waiting): done = embed_cohort(run, manifest, hipt, precision=precision)
    assert done['done']==len(paths), done
    return sum(int(run.case(s).tiles.mask().sum()) for s in manifest.slide_id), hipt.precision

class Ways:
    "The three ways over the same slides; what each last found"
    def __init__(self, folder, workers, precision):
        self.folder, self.workers, self.precision = Path(folder), workers, precision
        self.hipt, self.patches, self.waits = create_hipt('hipt-4k'), {}, {}
        self.encoder = lambda x: self.hipt.level1.tokens(x)[:,0]

    def theirs(self, name, fn, paths):
        waiting = Waiting()
        self.patches[name] = sum(fn(p, self.encoder, self.folder, self.workers, waiting) for p in paths)
        self.waits.setdefault(name, []).append(waiting.share)

    def own(self, paths):
        waiting = Waiting()
        self.hipt.precision = 'float32'
        self.patches['ours'], self.used = ours(paths, self.hipt, self.folder, self.precision, waiting)
        self.waits.setdefault('ours', []).append(waiting.share)

    def over(self, paths):
        return dict(trident_like=lambda: self.theirs('trident_like', trident_like, paths),
                    clam_like=lambda: self.theirs('clam_like', clam_like, paths), ours=lambda: self.own(paths))

@torch.inference_mode()
def compare(ways, paths, rounds):
    "Ratios for slides and for patches, and the shares of waiting"
    ways.waits = {}
    t = alternate(ways.over(paths), rounds)
    n = ways.patches
    peers = [k for k in t if k!='ours']
    return t['ours'], dict(patches=dict(n),
        times_faster={k: ratio(t[k], t['ours']) for k in peers},
        times_faster_for_a_patch={k: ratio(t[k], t['ours'], n['ours']/n[k]) for k in peers},
        share_of_time_waiting_for_pixels={k: round(float(np.median(v)), 3) for k,v in ways.waits.items()})

def main(a):
    big, many = (2048, 1024) if a.quick else (8192, 4096)
    res = machine() | dict(workers=a.workers, slide_px=dict(one=big, twenty=many))
    with tempfile.TemporaryDirectory() as d:
        one = [make_slide(Path(d)/'one.tif', 'glandular', seed=0, size=big)]
        twenty = [make_slide(Path(d)/f's{i:02}.tif', 'glandular', seed=1+i, size=many) for i in range(20)]
        ways = Ways(d, a.workers, a.precision)
        for name,paths in (('one', one), ('twenty', twenty)):
            _, res[f'{name}_slide{"s"*(name!="one")}'] = compare(ways, paths, a.rounds)
            res['arithmetic'] = ways.used
            print(name, json.dumps(res[f'{name}_slide{"s"*(name!="one")}']), flush=True)
            keep(a.out, res)
        counts = (1, 5, 20)
        with torch.inference_mode():
            t = alternate({n: lambda n=n: ways.own(twenty[:n]) for n in counts}, max(2, a.rounds//2))
        res['cost_per_slide_over_that_of_one'] = {n: ratio(t[n], t[1], 1/n) for n in counts}
    print(json.dumps(res, indent=1))
    keep(a.out, res)

if __name__=='__main__':
    p = arguments(__doc__, rounds=3)
    p.add_argument('--workers', type=int, default=os.cpu_count(), help='of the DataLoader')
    p.add_argument('--precision', default='auto')
    main(p.parse_args())
