"""Features and attention of one 4096-px region with hipt-4k: the published way and ours, side by side.

The published way: float32, attention by explicit softmax, 256 patches at a time, one forward pass for features and another for attention.
Ours: scaled-dot-product attention in inference, features and the class token's attention from the same pass, patch batches that fit the cache, masks.
The floor: the operations of one pass over the measured rate of large matrix products in the same precision.
"""
import argparse, json, platform, time
from contextlib import contextmanager
from pathlib import Path
import torch
from torch.nn import functional as F
from hipt_nb.hipt import create_hipt, cut_patches
from hipt_nb.vit import flops

def explicit(q, k, v, attn_mask=None): return (q @ k.transpose(-2, -1) * q.shape[-1]**-.5).softmax(-1) @ v

@contextmanager
def explicit_attention():
    fast, F.scaled_dot_product_attention = F.scaled_dot_product_attention, explicit
    try: yield
    finally: F.scaled_dot_product_attention = fast

def published(hipt, x):
    "Two passes with explicit attention"
    with explicit_attention():
        patches = cut_patches(x, 256)[0].flatten(0, 1)
        tokens = hipt.level1(patches)
        grid = tokens.T.reshape(1, -1, 16, 16)
        region = hipt.level2(grid)
        hipt.level1.attention(patches); hipt.level2.attention(grid)
    return region

def ours(hipt, x, batch=16):
    "One pass gives both"
    patches = cut_patches(x, 256)[0].flatten(0, 1)
    tokens = torch.cat([hipt.level1.class_attention(p)[0] for p in patches.split(batch)])
    return hipt.level2.class_attention(tokens.T.reshape(1, -1, 16, 16))[0]

def timed(fn, *args, device, n):
    "Shortest of `n` runs, in seconds"
    best, out = float('inf'), None
    for _ in range(n):
        if device.type=='cuda': torch.cuda.synchronize()
        t = time.perf_counter(); out = fn(*args)
        if device.type=='cuda': torch.cuda.synchronize()
        best = min(best, time.perf_counter()-t)
    return best, out

def matmul_rate(dtype, device, n=2048):
    "Operations per second of a large matrix product"
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    return 2*n**3/timed(torch.mm, a, b, device=device, n=5)[0]

@torch.inference_mode()
def main(out, device, runs):
    device = torch.device(device)
    hipt = create_hipt('hipt-4k').to(device)
    x = torch.randn(1, 3, 4096, 4096, device=device)
    t_pub, a = timed(published, hipt, x, device=device, n=runs)
    t_ours, b = timed(ours, hipt, x, device=device, n=runs)
    half = torch.zeros(1, 16, 16, dtype=torch.bool, device=device); half[:,:8] = True
    t_full, _ = timed(hipt, x, device=device, n=runs)
    t_half, _ = timed(hipt, x, half, device=device, n=runs)
    hipt.dtype = 'bfloat16'
    t_bf16, c = timed(hipt, x, device=device, n=runs)
    ops = 256*flops(hipt.level1, 16, 16) + flops(hipt.level2, 16, 16)
    floor = ops/matmul_rate(torch.float32, device)
    res = dict(machine=torch.cuda.get_device_name() if device.type=='cuda' else f'{platform.machine()} CPU, {torch.get_num_threads()} threads', torch=torch.__version__,
        features_and_attention_times_faster=round(t_pub/t_ours, 2), features_times_slower_than_float32_floor=round(t_full/floor, 2),
        features_in_bfloat16_times_faster_than_float32=round(t_full/t_bf16, 2), cosine_of_bfloat16=round(F.cosine_similarity(b, c).item(), 5),
        half_masked_share_of_time=round(t_half/t_full, 2), cosine_to_published=round(F.cosine_similarity(a, b).item(), 6))
    print(json.dumps(res, indent=1))
    if out: Path(out).parent.mkdir(parents=True, exist_ok=True); Path(out).write_text(json.dumps(res, indent=1)+'\n')

if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--out', help='JSON file to write'); p.add_argument('--device', default='cpu'); p.add_argument('--runs', type=int, default=2)
    main(**vars(p.parse_args()))
