"""Does every command take a time per slide, and a memory, that do not grow with the cohort?

    python benchmarks/cohort.py FOLDER [--out benchmarks/results/cohort-cpu.json] [--sizes 10 100 1000]
                                       [--features-only 1000 10000] [--only status report]

Makes cohorts of small slides of 1024 px (four regions of 512 px at most) by a rule, and for the largest features
alone, by copies of the files that a small cohort ended with (such sizes are written with an F). Every command runs in
a process of its own, as a user calls it, and is measured from outside: wall time, time of the processor (on a machine
with other work the one to look at) and peak memory. Started again it goes on: a measurement that is in the result is
not made anew, unless `--only` names its command.
"""
import argparse, json, os, platform, shutil, subprocess, sys, time
from pathlib import Path
import numpy as np, pandas as pd, tifffile

ENCODER = 'hipt-tiny-random'
REGION = ['--region-size', '512', '--min-region', '.25']

def slide_image(i, side=1024):
    "Tissue with the grain of an H&E stain in an ellipse, white around it; the two classes differ in the grain's size"
    rng = np.random.default_rng([7, i])
    grain = (8, 16)[i%2]
    noise = rng.normal(0, 30, (side//grain, side//grain, 1)).repeat(grain, 0).repeat(grain, 1)
    y, x = np.mgrid[:side,:side]/side - .5
    tissue = (x/.45)**2 + (y/rng.uniform(.3, .45))**2 < 1
    stain = np.array([185, 110, 165]) + noise + rng.normal(0, 8, (side, side, 1))
    return np.where(tissue[...,None], stain, 244).clip(0, 255).astype(np.uint8)

def make_slides(folder, n):
    "Slides, and their manifest; those that are there stay"
    folder.mkdir(parents=True, exist_ok=True)
    ids = [f'S{i:05}' for i in range(n)]
    for i,s in enumerate(ids):
        path = folder/f'{s}.tif'
        if path.exists(): continue
        part = folder/f'{s}.part'
        tifffile.imwrite(part, slide_image(i), tile=(256, 256), compression='jpeg', photometric='rgb',
                         resolution=(20000, 20000), resolutionunit='CENTIMETER')
        part.rename(path)
    return write_manifest(folder, ids, [f'{s}.tif' for s in ids])

def write_manifest(folder, ids, paths):
    number = np.arange(len(ids))
    rows = dict(path=paths, slide_id=ids, patient=[f'P{i:05}' for i in number], label=[f'c{i%2}' for i in number])
    pd.DataFrame(rows).to_csv(folder/'manifest.csv', index=False)
    return folder/'manifest.csv'

def features_alone(folder, n, source):
    "A run of n slides that are gone, with tiles and features as `hipt` writes them, made from those of a small run"
    from dataclasses import replace
    from hipt_nb import core
    from hipt_nb.features import read_features, write_features
    from hipt_nb.core import write_csv
    from hipt_nb.run import Run
    from hipt_nb.tiling import read_tiles, write_tiles
    ids = [f'S{i:05}' for i in range(n)]
    folder.mkdir(parents=True, exist_ok=True)
    manifest = write_manifest(folder, ids, [f'gone/{s}.tif' for s in ids])
    core._sync = lambda path: None   # nothing here has to outlive a power failure
    small, run = Run(source/'run'), Run(folder/'run')
    write_csv(run.table('manifest'), pd.read_csv(manifest).assign(path=[str(folder/'gone'/f'{s}.tif') for s in ids]))
    shutil.copy(small.root/'run.json', run.root/'run.json')
    kept = sorted(p.stem for p in (small.root/'tiles').glob('*.h5'))
    kept = [(read_tiles(small.tiles(s)), read_features(small.features(ENCODER, s))) for s in kept]
    for i,s in enumerate(ids):
        if run.features(ENCODER, s).exists(): continue
        tiles, f = kept[i%len(kept)]
        write_tiles(run.tiles(s), replace(tiles, slide_id=s))
        write_features(run.features(ENCODER, s), replace(f, slide_id=s))
    return manifest

def commands(manifest, run, n):
    "Name → arguments of every command, in the order that a user gives them in"
    some, e = ['--out', run], ['--encoder', ENCODER]
    arithmetic = ['--precision', 'float32', '--batch-size', '16']  # nothing is measured for it first
    return {
        'tile': ['tile', manifest, *some, *REGION],
        'tile again': ['tile', manifest, *some, *REGION],
        'embed': ['embed', manifest, *some, '--model', 'hipt-tiny:random', *arithmetic],
        'embed again': ['embed', manifest, *some, '--model', 'hipt-tiny:random', *arithmetic],
        'knn': ['knn', manifest, *some, *e, '--folds', '2'],
        'train': ['train', manifest, *some, *e, '--folds', '2', '--epochs', '2'],
        'evaluate': ['evaluate', manifest, *some, '--no-baselines'],
        'predict': ['predict', manifest, *some, *e],
        'attend': ['attend', manifest, *some, *e, '--top', '1', '--device', 'cpu'],
        'attend again': ['attend', manifest, *some, *e, '--top', '1', '--device', 'cpu'],
        'status': ['status', run],
        'report': ['report', manifest, *some],
        'view': ['view', run, '--static', run.parent/'pages'],
        'export': ['export', manifest, *some],
        'export features': ['export', manifest, *some, *e, '--features', '--to', 'trident']}

PIXELS = 'tile', 'tile again', 'embed', 'embed again', 'attend', 'attend again', 'view', 'export'

def measure(args, log):
    "Run a command; seconds, seconds of the processor, and MB at the peak, its own processes included"
    begun = time.time()
    with open(log, 'ab') as f:
        p = subprocess.Popen([sys.executable, '-m', 'hipt_nb.cli', *map(str, args)], stdout=f, stderr=f)
        _, status, used = os.wait4(p.pid, 0)
    p.returncode = os.waitstatus_to_exitcode(status)
    if p.returncode: sys.exit(f"{' '.join(map(str, args))}: exit code {p.returncode}, see {log}")
    return dict(wall=round(time.time()-begun, 2), cpu=round(used.ru_utime+used.ru_stime, 2),
                mb=used.ru_maxrss//1024)

def sizes_of(folder):
    "Bytes of what a run folder holds, by the folder in it"
    size = lambda p: sum(f.stat().st_size for f in p.rglob('*') if f.is_file())
    run = folder/'run'
    parts = {k: size(run/k) for k in ('tiles', 'features', 'maps', 'models', 'evaluation', 'export')}
    reports = [f.stat().st_size for f in run.glob('*.html')]
    return parts | dict(pages=size(folder/'pages'), report=sum(reports))

def listing(folder, n=100_000):
    "Seconds that things take in a folder of n files"
    from hipt_nb.core import atomic
    from hipt_nb.run import Run
    run, made = Run(folder), folder/'features'/'x'
    made.mkdir(parents=True, exist_ok=True)
    for i in range(n): (made/f'S{i:06}.h5').touch()
    found, ways = {}, {
        'encoder_names': run.encoder_names, 'exists, each': lambda: [run.features('x', f'S{i:06}').exists()
                                                                      for i in range(n)],
        'list': lambda: {p.name for p in made.iterdir()},
        'first file written by a process': lambda: _write(atomic, made/'new.h5'),
        'second file': lambda: _write(atomic, made/'new.h5')}
    for name,fn in ways.items():
        begun = time.perf_counter()
        fn()
        found[name] = round(time.perf_counter()-begun, 4)
    shutil.rmtree(folder)
    return found

def _write(atomic, path):
    with atomic(path) as tmp: tmp.write_bytes(b'x')

def main():
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('folder', type=Path)
    p.add_argument('--out', type=Path)
    p.add_argument('--sizes', type=int, nargs='*', default=[10, 100, 1000])
    p.add_argument('--features-only', type=int, nargs='*', default=[10_000])
    p.add_argument('--only', nargs='*', help='measure these commands again')
    a = p.parse_args()
    out = a.out or a.folder/'cohort.json'
    found = json.loads(out.read_text()) if out.exists() else {}
    found['machine'] = dict(cpu=_cpu(), cores=os.cpu_count(), system=platform.platform(),
                            python=platform.python_version())
    os.environ.setdefault('OMP_NUM_THREADS', '1')
    def keep():
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(found, indent=1)+'\n')
    for n,whole in [*((n, True) for n in a.sizes), *((n, False) for n in a.features_only)]:
        name_of = f"{n}{'F'*(not whole)}"
        here = a.folder/name_of
        manifest = make_slides(here/'slides', n) if whole else features_alone(here, n, a.folder/f'{a.sizes[-1]}')
        rows = found.setdefault(name_of, {})
        for name,args in commands(manifest, here/'run', n).items():
            if not whole and name in PIXELS: continue
            if name in rows and name not in (a.only or ()): continue
            if a.only and name not in a.only: continue
            rows[name] = r = measure(args, here/'log.txt')
            print(f"{name_of:6} {name:16} {r['wall']:8.1f} s {r['cpu']:8.1f} s cpu {r['mb']:6} MB", flush=True)
            keep()
        rows['bytes'] = sizes_of(here)
        keep()
    if 'files' not in found:
        found['files'] = listing(a.folder/'listing')
        keep()

def _cpu():
    lines = Path('/proc/cpuinfo').read_text().splitlines() if Path('/proc/cpuinfo').exists() else []
    return next((l.split(': ')[1] for l in lines if l.startswith('model name')), platform.processor())

if __name__=='__main__': main()
