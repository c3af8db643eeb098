"""Patches per second from slide files: one `read_region` per patch, and ours, side by side.

The usual way: OpenSlide's `read_region` for every 256-px patch, `convert('RGB')` by Pillow, one at a time. Ours:
`iter_regions` reads whole regions with two threads, through the tile reader where it gives the same pixels, and cuts
the patches out. Both read every patch of the same regions at level 0; the runs are taken in turn and the median is
kept, so that a noisy machine disturbs both alike."""
import argparse, json, os, platform, statistics, time, warnings
from pathlib import Path
import numpy as np
import openslide
from hipt_nb.slide import Slide
from hipt_nb.tiling import grid_starts, iter_regions, Tiles

PATCH, REGION = 256, 1024

def regions_of(slide):
    "Every region of the slide, tissue or not"
    xs, ys = (grid_starts(n, REGION) for n in slide.dimensions)
    coords, n = np.array([(x, y) for y in ys for x in xs], np.int64), REGION//PATCH
    return Tiles(slide.name, coords, *[np.ones((len(coords), n, n), np.float16)]*3, slide.mpp, slide.mpp, REGION, PATCH)

def one_by_one(path, tiles):
    "One `read_region` and one conversion a patch"
    try: s = openslide.OpenSlide(str(path))
    except openslide.OpenSlideError: s = openslide.ImageSlide(str(path))
    with s:
        for x,y in tiles.coords:
            for r in range(0, REGION, PATCH):
                for c in range(0, REGION, PATCH):
                    np.asarray(s.read_region((int(x)+c, int(y)+r), 0, (PATCH, PATCH)).convert('RGB'))

def by_region(path, tiles, workers):
    "Regions read ahead, patches cut out of them"
    with Slide(path, 1.) as s:
        for a in iter_regions(s, tiles, workers=workers):
            for r in range(0, REGION, PATCH):
                for c in range(0, REGION, PATCH): np.ascontiguousarray(a[r:r+PATCH, c:c+PATCH])

def timed(fn, *args): t = time.perf_counter(); fn(*args); return time.perf_counter()-t

def measure(path, n):
    with Slide(path, 1.) as s: tiles, reader = regions_of(s), s.file.kind
    ways = {'one read_region a patch': (one_by_one, path, tiles), 'iter_regions, 1 worker': (by_region, path, tiles, 1),
            'iter_regions, 2 workers': (by_region, path, tiles, 2)}
    times = {k: [] for k in ways}
    for _ in range(n):
        for k,way in ways.items(): times[k].append(timed(*way))
    patches, mid = len(tiles)*(REGION//PATCH)**2, {k: statistics.median(v) for k,v in times.items()}
    first = mid['one read_region a patch']
    return dict(file=path.name, reader=reader, patches=patches,
                **{f'times faster, {k}': round(first/t, 2) for k,t in mid.items()})

if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--data', default=os.environ.get('HIPT_DATA'), help='folder of slides; HIPT_DATA if not given')
    p.add_argument('--runs', type=int, default=5)
    p.add_argument('--out', help='JSON file to write')
    a = p.parse_args()
    warnings.simplefilter('ignore')
    rows = []
    for path in sorted(Path(a.data).iterdir()):
        if path.suffix in ('.md','.csv'): continue
        rows.append(measure(path, a.runs)); print(rows[-1], flush=True)
    res = dict(machine=platform.processor() or platform.machine(), cores=os.cpu_count(), rows=rows)
    if a.out: Path(a.out).write_text(json.dumps(res, indent=1)+'\n')
