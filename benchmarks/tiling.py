"""Tissue and grid of a phantom slide of 100,000 × 100,000 px, as a pyramid and as a single level; time and peak memory
of a fresh process.

The slide is a generic tiled BigTIFF, 25 mm wide at 0.25 µm per pixel. Every tile is JPEG and stands in the file for
itself; their bytes repeat, because a few phantoms are encoded once and laid out as a mosaic, whole tissue inside and
ragged pieces around it. The pyramid has levels 1, 4 and 16, as scanners write them."""
import argparse, json, multiprocessing, os, platform, resource, statistics, subprocess, sys, tempfile, time
from pathlib import Path

BLOCK, TILE, LEVELS, MPP = 4096, 256, (1, 4, 16), .25

def encoded(image):
    "JPEG bytes of every tile of an image, row by row"
    from imagecodecs import jpeg8_encode
    return [[jpeg8_encode(image[r:r+TILE, c:c+TILE], level=80, colorspace='RGB', outcolorspace='YCBCR',
                          subsampling='420') for c in range(0, image.shape[1], TILE)]
                          for r in range(0, image.shape[0], TILE)]

def blocks(folder, kinds):
    "Blocks of 4096 × 4096 px as tiles of every level: [glass, ragged pieces..., whole tissue...]"
    import cv2, numpy as np, tifffile
    from hipt_nb.phantom import make_slide
    pieces = [tifffile.imread(make_slide(Path(folder)/f'{seed}.tif', seed=seed, size=BLOCK, mpp=MPP))
              for seed in range(kinds)]
    cut = [p[1024:3072, 1024:3072] for p in pieces]
    whole = [np.concatenate([np.concatenate([c, c[:,::-1]], 1), np.concatenate([c[::-1], c[::-1,::-1]], 1)])
             for c in cut]
    glass = np.full((BLOCK, BLOCK, 3), pieces[0][:64,:64].mean((0,1)).round(), np.uint8)
    scaled = lambda im: [encoded(im if d==1 else cv2.resize(im, (BLOCK//d, BLOCK//d), interpolation=cv2.INTER_AREA))
                         for d in LEVELS]
    return [scaled(im) for im in [glass, *pieces, *whole]]

def layout(n, kinds, seed=0):
    "Which block stands where, `[n, n]`: two large pieces of tissue, about 40 % of the slide"
    import numpy as np
    rng, (y, x) = np.random.default_rng(seed), np.mgrid[:n,:n]/n
    depth = np.maximum(1-np.hypot((x-.35)/.26, (y-.45)/.38), 1-np.hypot((x-.75)/.18, (y-.55)/.33))
    one = rng.integers(0, kinds, (n, n))
    return np.where(depth>.15, 1+kinds+one, np.where(depth>0, 1+one, 0))

def build(path, side, levels, kinds=4):
    "Write the slide, tile by tile"
    import tifffile
    with tempfile.TemporaryDirectory() as folder: bank = blocks(folder, kinds)
    plan = layout(-(-side//BLOCK), kinds)
    with tifffile.TiffWriter(path, bigtiff=True) as t:
        for i,d in enumerate(LEVELS[:levels]):
            w, per = -(-side//d), BLOCK//d//TILE
            n = -(-w//TILE)
            tiles = (bank[plan[r//per, c//per]][i][r%per][c%per] for r in range(n) for c in range(n))
            t.write(tiles, shape=(w, w, 3), dtype='uint8', tile=(TILE, TILE), photometric='rgb', compression='jpeg',
                    subsampling=(2, 2), subfiletype=int(i>0),
                resolution=(1e4/(MPP*d),)*2, resolutionunit='CENTIMETER', metadata=None)

def once(path):
    "Tissue and grid in this process: seconds by the clock and of all threads together, MiB, and what was found"
    from hipt_nb.slide import Slide
    from hipt_nb.tiling import tile_slide
    import cv2  # noqa: F401, as imports are not what is measured
    before, start, cpu = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter(), time.process_time()
    with Slide(path) as s: tiles = tile_slide(s)
    seconds, cpu = time.perf_counter()-start, time.process_time()-cpu
    return dict(seconds=round(seconds, 2), cpu_seconds=round(cpu, 2),
                peak_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss//1024, of_which_imports_mib=before//1024,
                regions=len(tiles), patches=int(tiles.mask().sum()))

def fresh(path):
    "The same in a process of its own"
    return json.loads(subprocess.run([sys.executable, __file__, '--once', str(path)], capture_output=True, text=True,
                                     check=True).stdout)

def main(out, side, runs, single, keep):
    threads = os.environ.get('OMP_NUM_THREADS', 'not set')
    machine = f'{platform.machine()} CPU, {os.cpu_count()} cores, OMP_NUM_THREADS={threads}'
    res = dict(machine=machine, side_px=side, mpp=MPP)
    with tempfile.TemporaryDirectory(dir=keep) as folder:
        for name, levels, n in [('pyramid', len(LEVELS), runs), ('single_level', 1, single)]:
            if not n: continue
            path = Path(keep or folder)/f'{name}-{side}.tif'
            if not path.exists():  # in a process of its own: a child's peak memory is counted from its parent's
                p = multiprocessing.get_context('spawn').Process(target=build, args=(path, side, levels)); p.start()
                p.join()
            found = [fresh(path) for _ in range(n)]
            res[name] = found[0] | dict(seconds=statistics.median(f['seconds'] for f in found),
                                        cpu_seconds=statistics.median(f['cpu_seconds'] for f in found),
                                        peak_mib=max(f['peak_mib'] for f in found), runs=n,
                                        file_mib=path.stat().st_size//2**20)
            if not keep: path.unlink()
    print(json.dumps(res, indent=1))
    if out: Path(out).parent.mkdir(parents=True, exist_ok=True); Path(out).write_text(json.dumps(res, indent=1)+'\n')

if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--out', default='benchmarks/results/tiling-cpu.json', help='JSON file to write')
    p.add_argument('--side', type=int, default=100_000, help='px')
    p.add_argument('--runs', type=int, default=3, help='of the pyramid')
    p.add_argument('--single', type=int, default=1, help='runs of the single level; takes minutes')
    p.add_argument('--keep', help='folder to keep the slides in, and to find them the next time')
    p.add_argument('--once', help='a slide: measure it in this process')
    a = vars(p.parse_args())
    if a['once']: print(json.dumps(once(a['once'])))
    else: del a['once']; main(**a)
