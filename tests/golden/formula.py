"Weights and inputs made by a formula, the same on every machine: golden numbers need no weight files"
import math, numpy as np, torch

def numbers(n, seed):
    "`n` numbers in (-1,1) that look random, from sines in double precision"
    return (np.sin(np.arange(n)*12.9898 + seed*78.233 + 1)*4375.85453 % 1)*2 - 1

def fill(module):
    "Give every tensor of `module` values that depend only on its place in the sorted list of names"
    with torch.no_grad():
        for i,(name,p) in enumerate(sorted(module.named_parameters())):
            u = torch.from_numpy(numbers(p.numel(), i)).view(p.shape)
            if 'norm' in name and name.endswith('weight'): u = 1 + .2*u
            elif p.ndim<2 or name in ('cls_token','pos_embed'): u = .3*u
            else: u = u*2.2/math.sqrt(p[0].numel())
            p.copy_(u)
    return module.eval()

def image(h, w, seed=1000):
    "A normalised image `[1,3,h,w]`: smooth waves plus noise"
    y,x = np.mgrid[:h,:w]
    waves = np.stack([np.sin(x/37+c)*np.cos(y/29-c) for c in range(3)])
    return torch.from_numpy(.6*waves + .4*numbers(3*h*w, seed).reshape(3,h,w)).float()[None]

def grid(rows, cols, dim=384, seed=2000):
    "A grid of features `[1,dim,rows,cols]`"
    return torch.from_numpy(2*numbers(dim*rows*cols, seed).reshape(1,dim,rows,cols)).float()

def summed(x):
    "`[...,n]` to `[...]`: each row in one number, with signs by formula, scaled so that errors do not add up"
    return x @ torch.from_numpy(np.sign(numbers(x.shape[-1], 3000))/math.sqrt(x.shape[-1])).to(x.dtype)

IMAGES = [(256,256),(224,224),(96,96),(192,320)]
GRIDS  = [(16,16),(14,14),(6,6),(14,10)]

def picture(n):
    "An 8-bit image `[n,n,3]`, waves and a fine pattern that nowhere repeats"
    y,x = np.ogrid[:n,:n]
    return np.stack([(100 + 70*np.sin(x/(97+9*c)+c)*np.cos(y/(83-5*c))
                      + (x*x*3+y*y*5+x*y*7+c*11)//64 % 61).astype(np.uint8) for c in range(3)], -1)
