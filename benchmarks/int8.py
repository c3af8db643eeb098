"""Level 1 of hipt-4k in 8-bit integers and in bfloat16, alternating in one run on one thread.

Bfloat16 twice: with GELU apart, in place, and with GELU in the product (oneDNN's fused call). Times are of the
processor (`time.thread_time`), so that other work on the machine disturbs little; ratios are of medians. The error over
the spread between patches is that of a model of your own (`--model`), on patches of its own run (`--run`)."""
import argparse, json, platform, time
from pathlib import Path
from statistics import median
import torch
from hipt_nb import vit as vit_module
from hipt_nb.embed import first_patches
from hipt_nb.hipt import HIPT, create_hipt
from hipt_nb.run import Run

def once(hipt, x, onednn):
    "Seconds of the processor for all patches"
    vit_module._has_onednn = onednn
    level1, start = hipt.level1, time.thread_time()
    for p in x.split(hipt.batch_size): level1(hipt.as_input(p).to(next(level1.parameters()).dtype))
    return time.thread_time()-start

@torch.inference_mode()
def main(out, patches, rounds, model, run):
    torch.set_num_threads(1)
    x = torch.randint(0, 256, (patches, 3, 256, 256), dtype=torch.uint8)
    models = {}
    for name in ('bfloat16', 'int8'):
        m = create_hipt('hipt-4k', precision=name).frozen()
        m.use_plan(8, False)   # what `tune` chose on the machine of the results
        models[name] = m
    ways = dict(bfloat16_with_gelu_apart=('bfloat16', False), bfloat16=('bfloat16', True), int8=('int8', True))
    times = {k: [] for k in ways}
    for _ in range(rounds+1):
        for k,(name,onednn) in ways.items(): times[k].append(once(models[name], x, onednn))
    first, t = times['bfloat16_with_gelu_apart'], {k: median(v[1:]) for k,v in times.items()}
    res = dict(machine=f'{platform.machine()} CPU ({torch.backends.cpu.get_cpu_capability()}), 1 thread',
               torch=torch.__version__, patches=patches, rounds=rounds,
               times_faster_than_bfloat16_with_gelu_apart={
                   k: round(t['bfloat16_with_gelu_apart']/v, 3) for k,v in t.items()},
               ranges={k: [round(min(first[1:])/max(v[1:]), 3), round(max(first[1:])/min(v[1:]), 3)]
                       for k,v in times.items()})
    if model:
        r = Run(run)
        found = HIPT.from_pretrained(model).eval().compare_arithmetics(
            first_patches(r, r.manifest(), 208, 16), ['int8', 'bfloat16'])
        res['error_over_spread_and_neighbours_kept'] = {
            k: [round(o['error'], 4), round(o['kept'], 3)] for k,o in found.items() if k!='float32'}
    print(json.dumps(res, indent=1))
    if out: Path(out).write_text(json.dumps(res, indent=1)+'\n')

if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--out', help='JSON file to write')
    p.add_argument('--patches', type=int, default=64); p.add_argument('--rounds', type=int, default=5)
    p.add_argument('--model', help='folder of a pyramid whose error is measured')
    p.add_argument('--run', help='with its tiles')
    main(**vars(p.parse_args()))
