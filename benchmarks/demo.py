"""The demo by protocol: the table of the site's page on it, over seeds.

Each seed makes its own slides, patients, stains, arrangements, lattices and folds; pretraining sees slides of other
patients (inductive). Seeds 0 to 9 are for development: whatever is chosen is chosen on them. **Seeds 401 to 405 are
for the printed table**, written down here before any of them was run; each is run once, after all is fixed, and every
one is printed. A seed that was run has a file, and is not run again.

    python benchmarks/demo.py                          # the test seeds
    python benchmarks/demo.py --seeds 0 1              # development
    python benchmarks/demo.py --seeds 0 1 --aligned    # the lesson: blocks on the grid of patches and regions
    python benchmarks/demo.py --table                  # the table alone
    python benchmarks/demo.py --write                  # run what is missing; the table into docs/pages/demo.md

`--set samples2=24000` changes a size of the demo and is kept in files of their own (development seeds alone)."""
import argparse, contextlib, json, os, platform, re, tempfile, time
from pathlib import Path
import cv2, numpy as np, pandas as pd
from hipt_nb.core import HIPTError, write_json
from hipt_nb.cli import FULL, _demo_steps
from hipt_nb.features import read_features
from hipt_nb.monitor import neighbour_accuracy
from hipt_nb.phantom import MASK_MPP, mask_path

TEST = 401, 402, 403, 404, 405
RESULTS = 'benchmarks/results/demo'
ROWS = {'HIPT, level 2 by hidden patches': 'HIPT, hipt-tiny features',
        'HIPT, level 2 by DINO alone': 'HIPT, hipt-tiny features, frozen level 2 (hipt-tiny-dino-alone)',
        'random level 2 on the pretrained level 1': 'random level 2, hipt-tiny',
        'HIPT, random weights': 'HIPT, hipt-tiny-random features',
        'mean of patches, of the pretrained level 1': 'mean of patches, hipt-tiny',
        'patch ABMIL, of the pretrained level 1': 'patch ABMIL, hipt-tiny'}

KINDS = {'pretrained level 1': 'hipt-tiny', 'random level 1': 'hipt-tiny-random'}   # gland or nest, patch by patch

MARK = '<!-- demo table -->', '<!-- end of demo table -->'   # in docs/pages/demo.md

def processor():
    "Its name, as far as the system tells"
    info = Path('/proc/cpuinfo')
    found = re.search(r'model name\s*: (.*)', info.read_text()) if info.exists() else None
    return found[1] if found else platform.processor()

def tissue_of(folder, slide, f, least=.1, most=.7):
    "(region, row, column) of the patches that are mostly gland or mostly nest by the ground truth, and which"
    mask = cv2.imread(str(mask_path(f'{folder}/cohort/{slide}.tif')), 0)
    for i,r,c in np.argwhere(f.mask()):
        corner = f.coords[i]+f.made_by['patch_size']*np.array([c, r])
        x, y, end_x, end_y = (np.r_[corner, corner+f.made_by['patch_size']]*.5/MASK_MPP).astype(int)
        gland, nest = ((mask[y:end_y,x:end_x]==k).mean() for k in (2, 3))
        if gland+nest>=least and max(gland, nest)>=most*(gland+nest): yield (i, r, c), nest>gland

def glands_from_nests(folder, name):
    "Share of patches whose five nearest neighbours, among other patients, are of their own kind of tissue"
    x, kinds, patients = [], [], []
    for r in pd.read_csv(Path(folder)/'cohort'/'manifest.csv').itertuples():
        f = read_features(f'{folder}/features/{name}/{r.slide_id}.h5')
        for at,nest in tissue_of(folder, r.slide_id, f):
            x.append(f.patch[at].astype(np.float32))
            kinds.append(nest)
            patients.append(r.patient)
    some = np.random.default_rng(0).permutation(len(x))[:2500]
    return round(neighbour_accuracy(np.stack(x)[some], np.array(kinds)[some], np.array(patients)[some]), 3)

def run(seed, sizes, folder):
    "One demo up to its evaluation: AUC of every row with its interval, seconds of every step"
    seconds, start = {}, time.process_time()
    for what,step in _demo_steps(folder, sizes, seed):
        begun = time.time()
        step()
        seconds[what.split(';')[0]] = round(time.time()-begun)
        if what.startswith('evaluate'): break
    table = pd.read_csv(Path(folder)/'evaluation.csv')
    table = table[table.metric=='AUC'].set_index('model')
    auc = {k: [round(float(table.loc[v, c]), 3) for c in ('value', 'low', 'high')] for k,v in ROWS.items()}
    kinds = {k: glands_from_nests(folder, v) for k,v in KINDS.items()}
    return dict(seed=seed, sizes=sizes, auc=auc, kinds=kinds, seconds=seconds,
                cpu_seconds=round(time.process_time()-start), load=round(os.getloadavg()[0], 1), processor=processor())

def path_of(out, seed, aligned, changes):
    parts = ['aligned']*aligned + [f'{k}-{v}' for k,v in sorted(changes.items())] + [f'seed-{seed}']
    return Path(out)/f"{'_'.join(parts)}.json"

def table_of(out, seeds, aligned, changes):
    "The table of the seeds that are there: mean, range, every seed; None if there are none"
    there = [json.loads(p.read_text()) for s in seeds if (p := path_of(out, s, aligned, changes)).exists()]
    if not there: return None
    run_seeds = ', '.join(str(r['seed']) for r in there)
    lines = [f'| AUC, seeds {run_seeds} | mean | range | every seed |', '|---|---|---|---|']
    for row in ROWS:
        v = [r['auc'][row][0] for r in there]
        each = ', '.join(f'{x:.2f}' for x in v)
        lines.append(f'| {row} | {np.mean(v):.2f} | {min(v):.2f} to {max(v):.2f} | {each} |')
    lines += kinds_of(there)
    missing = [str(s) for s in seeds if s in TEST and not path_of(out, s, aligned, changes).exists()]
    return '\n'.join(lines + (['', f"Not run yet: seeds {', '.join(missing)}."] if missing else []))

def kinds_of(there):
    "What level 1 has learned: rows of the seeds that have it"
    there = [r for r in there if 'kinds' in r]
    if not there: return []
    lines = ['', f"| gland or nest, patch by patch, seeds {', '.join(str(r['seed']) for r in there)} | mean | range |",
             '|---|---|---|']
    for k in KINDS:
        v = [r['kinds'][k] for r in there]
        lines.append(f'| nearest neighbours, {k} | {np.mean(v):.2f} | {min(v):.2f} to {max(v):.2f} |')
    return lines

def write(table):
    "Put the table between its marks on the demo's page"
    page = Path(__file__).resolve().parents[1]/'docs'/'pages'/'demo.md'
    text = page.read_text('utf-8')
    page.write_text(re.sub(f'({MARK[0]}\n).*?({MARK[1]})', lambda m: m[1]+table+'\n'+m[2], text, flags=re.S), 'utf-8')

def main(out, seeds, aligned, set, table, write_readme, work):
    changes = {k: json.loads(v) for k,v in (o.split('=') for o in set)}
    if unknown := [k for k in changes if k not in FULL]: raise HIPTError(f"the demo has no size '{unknown[0]}'")
    if (changes or aligned) and any(s>9 for s in seeds):
        raise HIPTError("only development seeds (--seeds 0 to 9) may be run with other sizes, or aligned")
    if write_readme and tuple(seeds)!=TEST: raise HIPTError("that page has the test seeds: leave out --seeds")
    for seed in [] if table else seeds:
        path = path_of(out, seed, aligned, changes)
        if path.exists(): continue
        path.parent.mkdir(parents=True, exist_ok=True)
        keep = contextlib.nullcontext(f'{work}/{path.stem}') if work else tempfile.TemporaryDirectory()
        with keep as folder: res = run(seed, FULL | dict(aligned=aligned) | changes, folder)
        write_json(path, res)
        print(res, flush=True)
    made = table_of(out, seeds, aligned, changes)
    print(made or 'no seed has been run yet')
    if write_readme and made: write(made)

if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--out', default=RESULTS, help='folder of the results, one JSON file a seed')
    p.add_argument('--seeds', type=int, nargs='+', default=TEST, help='seeds; the test seeds if not given')
    p.add_argument('--aligned', action='store_true', help='blocks on the grid of patches and regions')
    p.add_argument('--set', nargs='+', default=[], help='sizes to change, name=value; development alone')
    p.add_argument('--table', action='store_true', help='print the table and run nothing')
    p.add_argument('--write', dest='write_readme', action='store_true', help='the table into docs/pages/demo.md')
    p.add_argument('--work', help='keep the runs in this folder, and go on with those that are there')
    main(**vars(p.parse_args()))
