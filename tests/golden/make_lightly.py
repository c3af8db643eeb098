"""Golden numbers of lightly's losses (github.com/lightly-ai/lightly, MIT), run beside this project on inputs made by a
formula.

    pip install --no-deps --target FOLDER lightly
    PYTHONPATH=FOLDER python tests/golden/make_lightly.py    # writes tests/golden/lightly.json"""
import json, random
from pathlib import Path
import torch
from lightly.loss import DINOLoss, IBOTPatchLoss, KoLeoLoss
from lightly.loss.swav_loss import sinkhorn
from lightly.models.utils import random_block_mask
from dino import formula

def numbers(loss, x):
    g, = torch.autograd.grad(loss, x)
    return dict(loss=loss.item(), grad_norm=g.norm().item(), grad=g.flatten()[:5].tolist())

def masks(side, share):
    "How many cells of a grid its block masks hide, and how many of these have a hidden cell below or to the right"
    m = random_block_mask((400, side, side), 1., share, share).float()
    joins = (m[:,1:]*m[:,:-1]).sum()+(m[:,:,1:]*m[:,:,:-1]).sum()
    return dict(side=side, share=share, mean=m.mean().item(), beside=(joins/m.sum()).item())

if __name__=='__main__':
    K, ncrops, B, temp = 40, 6, 4, .06
    loss, dino = DINOLoss(output_dim=K, student_temp=.1), []
    for step in range(4):
        s, t = formula(ncrops*B, K, k=.9+step).requires_grad_(), formula(2*B, K, k=.2+step)
        dino.append(numbers(loss(list(t.chunk(2)), list(s.chunk(ncrops)), teacher_temp=temp), s)
                    | dict(center=loss.center.flatten()[:5].tolist()))
    loss, ibot = IBOTPatchLoss(output_dim=K, teacher_temp=temp, student_temp=.1), []
    for step in range(4):
        mask = formula(3, 20, k=.5+step).view(3, 4, 5) > 0
        n = int(mask.sum())
        s, t = formula(n, K, k=.9+step).requires_grad_(), formula(n, K, k=.2+step)
        ibot.append(numbers(loss(t, s, mask), s) | dict(center=loss.center.value.flatten()[:5].tolist()))
    x = formula(24, 8, k=.37).requires_grad_()
    balanced = sinkhorn(formula(12, 6, k=.61), iterations=3, epsilon=.5)
    random.seed(0)
    blocks = [masks(side, share) for side in (8, 16) for share in (.25, .5)]
    res = dict(dino=dict(out_dim=K, ncrops=ncrops, batch=B, teacher_temp=temp, steps=dino),
               ibot=dict(out_dim=K, teacher_temp=temp, steps=ibot),
               koleo=dict(shape=[24,8], **numbers(KoLeoLoss()(x), x)),
               sinkhorn=dict(shape=[12,6], temperature=.5, answer=balanced.tolist()), blocks=blocks)
    Path(__file__).with_name('lightly.json').write_text(json.dumps(res)+'\n')
