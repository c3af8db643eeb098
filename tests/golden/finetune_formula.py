"Weights and bags made by a formula for the slide-level model, by published parameter name: the same on every machine"
import math, zlib, torch
from formula import numbers

def value(name, shape):
    "The tensor that stands under a published name"
    u = torch.from_numpy(numbers(math.prod(shape), zlib.crc32(name.encode())%1000)).view(shape).float()
    if 'norm' in name and name.endswith('weight'): return 1 + .2*u
    if len(shape)<2 or name.endswith(('cls_token','pos_embed')): return .3*u
    return u*2.2/math.sqrt(math.prod(shape[1:]))

PUBLISHED = {'level2':'local_vit', 'phi':'global_phi', 'transformer':'global_transformer',
             'pool.tanh':'global_attn_pool.attention_a.0',
             'pool.gate':'global_attn_pool.attention_b.0', 'pool.score':'global_attn_pool.attention_c',
             'rho':'global_rho', 'classifier':'classifier'}

LOCAL = {'local_phi':'local_phi', 'phi':'global_phi', 'rho':'global_rho', 'classifier':'classifier',
         **{f'{ours}.{part}':f'{theirs}.{name}'
            for ours,theirs in (('local_pool','local_attn_pool'), ('pool','global_attn_pool'))
            for part,name in (('tanh','attention_a.0'), ('gate','attention_b.0'), ('score','attention_c'))}}

def published_name(ours, names=PUBLISHED):
    "Our parameter name as the published code calls it"
    part = max((p for p in names if ours.startswith(p+'.')), key=len)
    return names[part] + ours[len(part):]

def local_name(ours): return published_name(ours, LOCAL)

def fill(module, name=lambda n: n):
    "Give every parameter the value of its published name"
    with torch.no_grad():
        for n,p in module.named_parameters(): p.copy_(value(name(n), tuple(p.shape)))
    return module.eval()

def region_tokens(m=7, seed=31): return torch.from_numpy(2*numbers(m*192, seed).reshape(m,192)).float()
def patch_grids(m=3, seed=32): return torch.from_numpy(2*numbers(m*256*384, seed).reshape(m,16,16,384)).float()

def survival(n=24, bins=4, seed=33):
    "Logits `[n, bins]`, stretch and event of made-up patients; some logits are large"
    z = torch.from_numpy(4*numbers(n*bins, seed).reshape(n, bins)).float()
    return z, torch.arange(n)%bins, (torch.arange(n)%3>0).long()
