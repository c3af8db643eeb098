"""Patches per second from slide files: one `read_region` per patch, and ours, side by side.

The usual way: OpenSlide's `read_region` for every 256-px patch, `convert('RGB')` by Pillow, one at a time. Ours:
`iter_regions` reads whole regions with two threads, through the tile reader where it gives the same pixels, and cuts
the patches out. Both read every patch of the same regions at level 0."""
import os, warnings
from pathlib import Path
import numpy as np
import openslide
from hipt_nb.slide import Slide
from hipt_nb.tiling import grid_starts, iter_regions, Tiles
from timing import alternate, arguments, keep, machine, ratio

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

def measure(path, rounds):
    with Slide(path, 1.) as s: tiles, reader = regions_of(s), s.file.kind
    one = 'one read_region a patch'
    t = alternate({one: lambda: one_by_one(path, tiles), **{f'iter_regions, {n} workers':
                   lambda n=n: by_region(path, tiles, n) for n in (1, 2)}}, rounds, warm=0)
    return dict(file=path.name, reader=reader, patches=len(tiles)*(REGION//PATCH)**2,
                times_faster={k: ratio(t[one], v) for k,v in t.items() if k!=one})

if __name__=='__main__':
    p = arguments(__doc__)
    p.add_argument('--data', default=os.environ.get('HIPT_DATA'), help='folder of slides; HIPT_DATA if not given')
    a = p.parse_args()
    if not a.data: p.error('which slides? Give --data, or set HIPT_DATA')
    warnings.simplefilter('ignore')
    rows = []
    for path in sorted(Path(a.data).iterdir()):
        if path.is_dir() or path.suffix in ('.md','.csv'): continue
        rows.append(measure(path, 2 if a.quick else a.rounds))
        print(rows[-1], flush=True)
    keep(a.out, machine() | dict(rows=rows))
