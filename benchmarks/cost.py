"""Processor seconds for 1,000 patches at level 1 and above, on one thread, for the page on what a cohort costs

    python benchmarks/cost.py [--out benchmarks/results/cost-cpu.json]

Time of the processor and not of the clock, the median of rounds in which the arithmetics take turns, so that other work
on the machine disturbs little; it still shares caches and memory with it.
"""
import argparse, json, os, time
from pathlib import Path
import numpy as np, torch
from hipt_nb.hipt import create_hipt

def seconds(fn):
    begun = time.process_time()
    with torch.no_grad(): fn()
    return time.process_time()-begun

def measure(preset, n, rounds):
    hipt = create_hipt(preset, seed=0).eval()
    regions = torch.randint(0, 256, (1, 1024, 256*n//4, 3), dtype=torch.uint8)   # n patches
    kinds, found = ('float32', 'bfloat16', 'int8'), {}
    def of(kind):
        hipt.precision = kind
        return seconds(lambda: hipt.patch_tokens(regions))
    for kind in kinds:
        try: of(kind)
        except Exception as e: print(f'{preset} {kind}: {e}')
        else: found[kind] = []
    for _ in range(rounds):
        for kind in found: found[kind].append(of(kind))
    grid = torch.randn(1, 16, 16, hipt.level1.embed_dim)
    mask = torch.ones(1, 16, 16, dtype=torch.bool)
    above = [seconds(lambda: hipt.region_tokens(grid, mask)) for _ in range(rounds+1)][1:]
    return dict(level1={k: round(1000*float(np.median(v))/n, 2) for k,v in found.items()},
                above_256=round(float(np.median(above)), 4))

if __name__=='__main__':
    p = argparse.ArgumentParser()
    p.add_argument('--out', default='benchmarks/results/cost-cpu.json')
    p.add_argument('--rounds', type=int, default=5)
    a = p.parse_args()
    torch.set_num_threads(1)
    model = next((l.split(': ')[1].strip() for l in Path('/proc/cpuinfo').read_text().splitlines()
                  if l.startswith('model name')), '')
    res = dict(machine=dict(cpu=model, cores=os.cpu_count(), threads=1, torch=torch.__version__),
               seconds_for_1000_patches={k: measure(k, 16, a.rounds) for k in ('hipt-4k', 'hipt-tiny')})
    print(json.dumps(res, indent=1))
    Path(a.out).write_text(json.dumps(res, indent=1)+'\n')
