"""Golden numbers of the published DINO (github.com/facebookresearch/dino, Apache-2.0), run beside this project on
inputs made by a formula.

    python tests/golden/dino.py path/to/a/clone/of/dino    # writes tests/golden/dino.json

The clone may be bare. Only `DINOLoss`, `DINOHead`, `cosine_scheduler` and `clip_gradients` are run; nothing of them
is stored but numbers."""
import ast, json, math, subprocess, sys, warnings
from pathlib import Path
import numpy as np, torch
from torch import nn
from torch.nn import functional as F

warnings.filterwarnings('ignore')

def published(repo, file, *names):
    "The named classes and functions of one file of the repository"
    src = subprocess.check_output(['git', '-C', repo, 'show', f'HEAD:{file}'], text=True)
    nodes = [n for n in ast.parse(src).body if getattr(n, 'name', None) in names]
    space = dict(np=np, torch=torch, nn=nn, F=F, math=math, dist=torch.distributed, trunc_normal_=nn.init.trunc_normal_)
    exec(compile(ast.Module(nodes, []), file, 'exec'), space)
    return [space[n] for n in names]

def formula(*shape, k=1.):
    "Numbers that need no generator"
    n = math.prod(shape)
    return torch.sin(torch.arange(1, n+1, dtype=torch.float64)*k).mul(2).view(shape).float()

def fill(module):
    "Weights by the formula"
    with torch.no_grad():
        for i,(_,p) in enumerate(sorted(module.named_parameters())):
            if p.requires_grad: p.copy_(formula(*p.shape, k=.1+i)*.1)
    return module

def main(repo):
    torch.distributed.init_process_group('gloo', init_method='tcp://127.0.0.1:29511', rank=0, world_size=1)
    DINOLoss, = published(repo, 'main_dino.py', 'DINOLoss')
    cosine_scheduler,clip_gradients = published(repo, 'utils.py', 'cosine_scheduler', 'clip_gradients')
    DINOHead, = published(repo, 'vision_transformer.py', 'DINOHead')

    g = dict(out_dim=32, ncrops=6, batch=4, teacher_temp=.05, loss=[], center_sum=[], grad_norm=[])
    loss = DINOLoss(g['out_dim'], g['ncrops'], .05, .05, 0, 1)
    for step in range(3):
        s,t = formula(g['ncrops']*g['batch'], g['out_dim'],
                      k=.7+step).requires_grad_(),formula(2*g['batch'], g['out_dim'], k=.3+step)
        l = loss(s, t, 0); l.backward()
        g['loss'].append(l.item()); g['center_sum'].append(loss.center.abs().sum().item())
        g['grad_norm'].append(s.grad.norm().item())

    args = [(.0005, 1e-6, 20, 5, 2), (.04, .4, 7, 3, 0), (.996, 1, 10, 4, 0), (.002, 1e-6, 6, 10, 6)]
    sched = []
    for base,final,epochs,niter,warm in args:
        if warm==epochs: continue
        sched.append(dict(args=[base, final, epochs*niter, warm*niter],
                          values=cosine_scheduler(base, final, epochs, niter, warm).tolist()))

    head = fill(DINOHead(12, 20, hidden_dim=16, bottleneck_dim=8))
    y = head(formula(3, 12))
    y.pow(2).sum().backward()
    clip_gradients(head, .05)
    golden_head = dict(in_dim=12, out_dim=20, hidden_dim=16, bottleneck_dim=8, names=list(head.state_dict()),
                       output=y.tolist(),
                       clip=.05, clipped={n: p.grad.norm().item() for n,p in head.named_parameters()
                                          if p.grad is not None})
    out = Path(__file__).with_suffix('.json')
    out.write_text(json.dumps(dict(loss=g, schedules=sched, head=golden_head)) + '\n')
    print(out.name, 'written')

if __name__=='__main__': main(sys.argv[1])
