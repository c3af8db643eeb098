"""Features and attention of one region with hipt-4k: the published way and ours, taking turns.

The published way: float32, attention by explicit softmax, 256 patches at a time, the last block in full, one forward
pass for features and another for attention. Ours: level 1 converted once, the last block for the class token alone,
batch and attention as `HIPT.tune` measures them, features and attention from one pass, masks; in each arithmetic that
this machine has. The ceiling: the rate of matrix products in the same arithmetic, large ones and those of level 1.
Shares of the ceiling count the operations that are really done (`done`) and those of a full pass (`full`), which the
last block saves a part of. `--model` and `--run` add the error over the spread between patches of a pyramid and a run
of your own, and the arithmetic that `auto` takes there."""
import copy, json
from contextlib import contextmanager
import torch
from torch.nn import functional as F
from hipt_nb.grids import cut_patches
from hipt_nb.hipt import create_hipt
from hipt_nb.int8 import has_vnni
from hipt_nb.precision import error_over_spread, pick_dtype
from hipt_nb.vit import flops
from timing import alone, alternate, arguments, ceiling, keep, machine, peak_gb, ratio, share_of_floor

def explicit(q, k, v, attn_mask=None): return (q @ k.transpose(-2, -1) * q.shape[-1]**-.5).softmax(-1) @ v

@contextmanager
def explicit_attention():
    fast, F.scaled_dot_product_attention = F.scaled_dot_product_attention, explicit
    try: yield
    finally: F.scaled_dot_product_attention = fast

def published(hipt, x, dtype=torch.float32):
    "Features, all of the last block with them; in float32 or under autocast"
    n = x.shape[-1]//256
    with explicit_attention(), torch.autocast(x.device.type, dtype, enabled=dtype!=torch.float32):
        tokens = torch.cat([hipt.level1.tokens(p)[:,0] for p in cut_patches(x, 256)[0].flatten(0, 1).split(256)])
        return hipt.level2.tokens(tokens.T.reshape(1, -1, n, n))[:,0]

def peak_memory(size, device):
    "Highest memory of a process that only computes features, in GB"
    hipt = create_hipt('hipt-4k', precision='auto').to(device)
    hipt.tune()
    hipt.frozen()(torch.randint(0, 256, (1, size, size, 3), dtype=torch.uint8))
    return torch.cuda.max_memory_allocated()/1e9 if device.type=='cuda' else peak_gb()

def arithmetics(device):
    "Those that may be fast here, float32 first"
    names = ['float32', str(pick_dtype('auto', device)).removeprefix('torch.')]
    return list(dict.fromkeys(names)) + ['int8']*(device.type=='cpu' and has_vnni())

def models_of(names, device):
    "Ready pyramids by arithmetic, and the batch and attention that each chose"
    models,plans = {},{}
    for name in names:
        m = create_hipt('hipt-4k', precision=name).to(device)
        plans[name] = m.tune() if name!='int8' else m.use_plan(*plans[names[-2]].values())
        models[name] = m.frozen()
    return models,plans

def ways_of(models, used, x, tissue, device):
    "What takes turns"
    plain,fast = models['float32'],models[used]
    # models share the modules of level 2 only, yet a plan is set on level 1: each has its own
    ways = {'published': lambda: published(plain, x), **{d: lambda m=m: m(x) for d,m in models.items()},
            'attention': lambda: fast.features(x, attention=True)['region'], 'tissue': lambda: fast(x, tissue)}
    if device.type=='cuda': ways['published under autocast'] = lambda: published(plain, x, torch.float16)
    return ways

def ratios(times, used, names):
    "Comparisons of our ways with the published one and with each other"
    of = lambda a,b: ratio(times[a], times[b])
    found = dict(
        matrix_products_times_faster_than_in_float32={d: of('large float32', f'large {d}') for d in names[1:]},
        times_faster_than_published={d: of('published', d) for d in names},
        features_and_attention_times_faster_than_published_two_passes=ratio(times['published'], times['attention'], 2),
        share_of_time_with_40_percent_tissue=of('tissue', used), share_of_time_with_attention=of('attention', used))
    if 'int8' in names: found['int8_times_faster_than_bfloat16'] = of(names[-2], 'int8')
    if 'published under autocast' in times:
        found['times_faster_than_published_under_autocast'] = of('published under autocast', used)
        found['patches_per_second'] = {k: round(256/min(times[k])) for k in (used, 'published')}
    return found

@torch.inference_mode()
def measure(device, rounds, size):
    "Everything for one region"
    names = arithmetics(device)
    models,plans = models_of(names, device)
    used = names[-2] if names[-1]=='int8' else names[-1]
    n = size//256
    x = torch.randn(1, 3, size, size, device=device)
    tissue = (torch.arange(n*n).view(1, n, n)%5<2)
    ways,done = ways_of(models, used, x, tissue, device),{}
    for d in names:
        for kind,batch in (('large', None), ('own', 256 if device.type=='cuda' else 16)):
            ways[f'{kind} {d}'],done[f'{kind} {d}'] = ceiling(d, device, batch)
    times = alternate(ways, rounds, device)
    tokens = lambda m: m.patch_tokens(x).flatten(0, 2)
    exact = tokens(models['float32'])
    low,high = models['float32'].levels
    needed = {k: n*n*flops(low, 16, 16, k=='done') + flops(high, n, n, k=='done') for k in ('full', 'done')}
    share = lambda d,what,kind: share_of_floor((times[f'{kind} {d}'], done[f'{kind} {d}']), times[d], needed[what])
    return dict(region_px=size, arithmetic=used, plans=plans, **ratios(times, used, names),
        share_of_matrix_rate={d: dict(done_of_large=share(d, 'done', 'large'), full_of_large=share(d, 'full', 'large'),
                                      done_of_its_own_shapes=share(d, 'done', 'own'),
                                      full_of_its_own_shapes=share(d, 'full', 'own')) for d in names},
        error_over_spread_of_noise={d: round(error_over_spread(tokens(models[d]), exact), 4) for d in names[1:]})

def judged(model, folder):
    "What arithmetics cost on patches of a run, as `hipt embed` judges them"
    from hipt_nb.embed import first_patches
    from hipt_nb.hipt import HIPT, good_enough
    from hipt_nb.run import Run
    run = Run(folder)
    hipt = HIPT.from_pretrained(model).eval()
    found = hipt.compare_arithmetics(first_patches(run, run.manifest(), 208, 16), ['int8', 'bfloat16'])
    return dict(auto_takes=good_enough(copy.deepcopy(found)),
                error_over_spread_and_neighbours_kept={k: [round(o['error'], 4), round(o['kept'], 3)]
                                                       for k,o in found.items() if k!='float32'})

if __name__=='__main__':
    p = arguments(__doc__)
    p.add_argument('--device', default='cpu')
    p.add_argument('--size', type=int, help='side of the region, px; 4096, or 1024 with --quick')
    p.add_argument('--model', help='folder of a pyramid whose error is measured')
    p.add_argument('--run', help='with its tiles')
    p.add_argument('--memory', action='store_true', help='only print the peak memory of a process that embeds')
    a = p.parse_args()
    device,size = torch.device(a.device), a.size or (1024 if a.quick else 4096)
    if a.memory: print(json.dumps(round(peak_memory(size, device), 2)))
    else:
        found = machine(device) | measure(device, a.rounds, size)
        found['peak_memory_gb'] = alone(__file__, '--memory', '--device', device, '--size', size)
        if a.model: found |= judged(a.model, a.run)
        print(json.dumps(found, indent=1))
        keep(a.out, found)
