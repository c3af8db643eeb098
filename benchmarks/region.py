"""Features and attention of one 4096-px region with hipt-4k: the published way and ours, side by side.

The published way: float32, attention by explicit softmax, 256 patches at a time, the last block in full, one forward
pass for features and another for attention. Ours: level 1 converted once, the last block for the class token alone,
batch and attention as `HIPT.tune` measures them, features and attention from one pass, masks. The ceiling: the rate
of matrix products in the same precision, large ones and those of level 1, measured in the same rounds. Shares of the
ceiling count the operations that are really done (`done`) and those of a full pass (`full`), which the last block
saves a part of."""
import argparse, json, platform, resource, subprocess, sys, time
from contextlib import contextmanager
from pathlib import Path
from statistics import median
import torch
from torch.nn import functional as F
from hipt_nb.precision import pick_dtype
from hipt_nb.grids import cut_patches
from hipt_nb.hipt import create_hipt
from hipt_nb.vit import flops

def explicit(q, k, v, attn_mask=None): return (q @ k.transpose(-2, -1) * q.shape[-1]**-.5).softmax(-1) @ v

@contextmanager
def explicit_attention():
    fast, F.scaled_dot_product_attention = F.scaled_dot_product_attention, explicit
    try: yield
    finally: F.scaled_dot_product_attention = fast

def published(hipt, x, dtype=torch.float32):
    "Features, all of the last block with them; in float32 or under autocast"
    with explicit_attention(), torch.autocast(x.device.type, dtype, enabled=dtype!=torch.float32):
        tokens = torch.cat([hipt.level1.tokens(p)[:,0] for p in cut_patches(x, 256)[0].flatten(0, 1).split(256)])
        return hipt.level2.tokens(tokens.T.reshape(1, -1, 16, 16))[:,0]

def timed(fn, device):
    "Seconds of one run, and what it gave"
    wait = torch.cuda.synchronize if device.type=='cuda' else lambda: None
    wait(); t = time.perf_counter(); out = fn(); wait()
    return time.perf_counter()-t, out

def matrix_rates(dtype, device, rounds=5):
    "Operations per second of matrix products: large ones, and those of a batch of patches in level 1"
    (side, batch, times) = (8192, 256, 5) if device.type=='cuda' else (2048, 16, 1)
    def rate(shapes):
        pairs = [(torch.randn(m, k, device=device, dtype=dtype), torch.randn(k, n, device=device, dtype=dtype))
                 for m,k,n in shapes]*times
        return times*sum(2*m*k*n for m,k,n in shapes)/min(timed(lambda: [a@b for a,b in pairs], device)[0]
                                                          for _ in range(rounds))
    N = batch*257
    return rate([(side,)*3]), rate([(N,384,1152), (N,384,384), (N,384,1536), (N,1536,384)])

def peak_memory(device):
    "Highest memory of a process that only computes features, in GB"
    return float(subprocess.run([sys.executable, __file__, '--device', str(device), '--memory'], capture_output=True,
                                text=True, check=True).stdout)

def only_features(device):
    hipt = create_hipt('hipt-4k', precision='auto').to(device); hipt.tune()
    hipt.frozen()(torch.randint(0, 256, (1, 4096, 4096, 3), dtype=torch.uint8))
    print(torch.cuda.max_memory_allocated()/1e9 if device.type=='cuda'
          else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1e6)

@torch.inference_mode()
def main(out, device, runs, memory):
    device = torch.device(device)
    if memory: return only_features(device)
    models, plans = {}, {}
    # bfloat16 only where `auto` takes it
    dtypes = list(dict.fromkeys(['float32', str(pick_dtype('auto', device)).split('.')[-1]]))
    for dtype in dtypes:
        m = create_hipt('hipt-4k', precision=dtype).to(device); plans[dtype] = m.tune(); models[dtype] = m.frozen()
    plain, fast = models['float32'], models[dtypes[-1]]
    x = torch.randn(1, 3, 4096, 4096, device=device)
    tissue = torch.arange(256).view(1, 16, 16)%5<2   # 40 % of the patches
    ways = {'published': lambda: published(plain, x), **{d: lambda m=m: m(x) for d,m in models.items()},
        'attention': lambda: fast.features(x, attention=True)['region'], 'tissue': lambda: fast(x, tissue)}
    if device.type=='cuda': ways['published under autocast'] = lambda: published(plain, x, torch.float16)
    times, outs, rates = {k:[] for k in ways}, {}, {d:[] for d in dtypes}
    for i in range(runs):
        for k in rates: rates[k].append(matrix_rates(getattr(torch, k), device))
        for k,fn in ways.items():
            if k=='published' and i>1 and device.type=='cpu': continue   # the slow one twice at most
            t, outs[k] = timed(fn, device); times[k].append(t)
    t = {k:median(v) for k,v in times.items()}
    best = {k:[max(r) for r in zip(*v)] for k,v in rates.items()}
    ops = {k: 256*flops(plain.level1, 16, 16, k=='done') + flops(plain.level2, 16, 16, k=='done')
           for k in ('full','done')}
    share = lambda dtype, what, of: round(ops[what]/t[dtype]/best[dtype][of], 3)
    cosine = lambda d: round(F.cosine_similarity(outs['published'], outs[d]).item(), 6)
    used = dtypes[-1]
    cpu = f'{platform.machine()} CPU ({torch.backends.cpu.get_cpu_capability()}), {torch.get_num_threads()} threads'
    res = dict(machine=torch.cuda.get_device_name() if device.type=='cuda' else cpu, torch=torch.__version__,
        arithmetic=used if len(dtypes)>1 else 'float32 alone: bfloat16 is not fast here', plans=plans,
        matrix_products_times_faster_than_in_float32=round(best[used][0]/best['float32'][0], 2),
        times_faster_than_published={d:round(t['published']/t[d], 2) for d in dtypes},
        features_and_attention_times_faster_than_published_two_passes=round(2*t['published']/t['attention'], 2),
        share_of_matrix_rate={d:dict(done_of_large=share(d,'done',0), full_of_large=share(d,'full',0),
                                     done_of_its_own_shapes=share(d,'done',1),
                                     full_of_its_own_shapes=share(d,'full',1)) for d in dtypes},
        share_of_time_with_40_percent_tissue=round(t['tissue']/t[used], 3),
        share_of_time_with_attention=round(t['attention']/t[used], 3), peak_memory_gb=round(peak_memory(device), 2),
        cosine_to_published={d:cosine(d) for d in dtypes})
    if device.type=='cuda':
        res |= dict(times_faster_than_published_under_autocast=round(t['published under autocast']/t[used], 2),
                    patches_per_second={k: round(256/v) for k,v in t.items()})
    print(json.dumps(res, indent=1))
    if out: Path(out).parent.mkdir(parents=True, exist_ok=True); Path(out).write_text(json.dumps(res, indent=1)+'\n')

if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--out', help='JSON file to write'); p.add_argument('--device', default='cpu')
    p.add_argument('--runs', type=int, default=3)
    p.add_argument('--memory', action='store_true',
                   help='only print the peak memory of a process that computes features')
    main(**vars(p.parse_args()))
