"""Every line of the design's table of speed by one command: `make bench`, or `make bench PARTS="ceilings region dino"`.

Each part is a script of its own and runs in a process of its own; in each the two sides take turns in one run, and
medians and ranges of ratios are kept (`timing.py`). What a part finds is written to `results/PART-MACHINE.json`, as
soon as it is there; the page *Speed* of the site draws these files. Parts:

    ceilings   rates of matrix products in each arithmetic, the floor of everything else
    region     features and attention of a region, tissue, memory
    curves     cost by regions, batch and threads
    dino       a training step at both levels
    maps       all 54 hierarchical pictures of a region, a slide's attention
    slides     slide on disk to features, one and twenty, beside TRIDENT's and CLAM's ways
    reading    patches per second from the files of HIPT_DATA
    tiling     tissue and grid of a slide of 100,000 × 100,000 px
    memory     peak of embedding by regions, of training by slides
    help       `hipt --help`
    gpu        region and dino on a GPU; left out where there is none

Say `QUICK=1` for smaller inputs, `CLOCK=cpu` to count the time of the processor on a machine with other work,
`OMP_NUM_THREADS=2` for the threads, `ROUNDS=7` for more turns, `MACHINE=name` for the name in the files."""
import argparse, subprocess, sys
from pathlib import Path
import torch
from timing import RESULTS, alternate, ceiling, cpu_name, keep, machine, ratio, timed

HERE = Path(__file__).parent
CPU = dict(region='region.py', curves='curves.py', dino='dino.py', maps='maps.py', slides='endtoend.py',
           reading='reading.py', tiling='tiling.py', memory='memory.py')
PARTS = 'ceilings', 'region', 'curves', 'dino', 'maps', 'slides', 'reading', 'tiling', 'memory', 'help', 'gpu'

def ceilings(rounds):
    "Rates of matrix products over those in float32, large ones and those of a block of level 1"
    ways,done = {}, {}
    for d in ('float32', 'bfloat16', 'int8'):
        for kind,batch in (('large', None), ('level 1', 16)):
            ways[f'{kind}, {d}'],done[f'{kind}, {d}'] = ceiling(d, 'cpu', batch)
    t = alternate(ways, rounds)
    first = 'large, float32'
    return machine() | dict(rate_over_float32={k: ratio(t[first], t[k], done[k]/done[first]) for k in t})

def help_time(rounds):
    "`hipt --help` over an empty Python, which is what there is no way around"
    run = lambda code: lambda: subprocess.run([sys.executable, '-c', code], capture_output=True, check=True)
    ways = dict(help=run("import sys; sys.argv = ['hipt', '--help']\nfrom hipt_nb.cli import main\n"
                         "try: main()\nexcept SystemExit as e: sys.exit(e.code)"), python=run('pass'))
    t = alternate(ways, rounds)
    return machine() | dict(help_over_empty_python=ratio(t['help'], t['python']))

OWN = dict(ceilings=ceilings, help=help_time)

def script(part, out, a, *more):
    "Run a part in a process of its own; whether it came to its end"
    command = [sys.executable, HERE/part, '--out', out, *more]
    if part!='tiling.py': command += ['--quick']*a.quick
    if a.rounds and part not in ('tiling.py', 'memory.py'): command += ['--rounds', a.rounds]
    return not subprocess.run([*map(str, command)]).returncode

def run(part, a):
    "One part; whether it came to its end"
    kind,name = ('cuda', a.machine or 'gpu') if part=='gpu' else ('cpu', a.machine or cpu_name())
    out = lambda what: RESULTS/f'{what}-{kind}-{name}.json'
    if part in OWN:
        keep(out(part), OWN[part](a.rounds or 5))
        return True
    if part!='gpu': return script(CPU[part], out(part), a, *['--side', '20000', '--single', '0']*(
        part=='tiling' and a.quick))
    if not torch.cuda.is_available():
        print('gpu: there is none here, left out')
        return True
    return all([script(CPU[p], out(p), a, '--device', 'cuda') for p in ('region', 'dino')])

def main(a):
    failed = []
    for part in a.parts or PARTS:
        print(f'{part} ...', flush=True)
        seconds,ok = timed(lambda part=part: run(part, a))
        if not ok: failed.append(part)
        print(f"{part}: {'done' if ok else 'FAILED'} in {seconds:.0f} s", flush=True)
    if failed: sys.exit(f"these parts failed: {', '.join(failed)}; the others' results are in {RESULTS}")

if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('parts', nargs='*', help='which; all of them if none is named')
    p.add_argument('--machine', help='name in the files of results; by default what the processor has')
    p.add_argument('--rounds', type=int, help="how often each side has its turn; each part's own number if not given")
    p.add_argument('--quick', action='store_true', help='smaller inputs')
    a = p.parse_args()
    unknown = [o for o in a.parts if o not in PARTS]
    if unknown: p.error(f"no such part: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    main(a)
