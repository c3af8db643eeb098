"""Make dino-steps.npz: twenty optimiser steps of the published DINO training, on patches (level 1) and on grids of
features (level 2), run beside this project: `python make_dino_steps.py REPO`. REPO is a clone of HIPT's repository
(github.com/mahmoodlab/HIPT), which may be bare; nothing of it is stored but numbers.

Its `vision_transformer.py`, `vision_transformer4k.py` and `utils.py` are run as they are, with `DINOLoss` of
`main_dino.py`, in the order of `train_one_epoch`, in float32, with weights and views made by a formula.

What has to be set alike, and is easy to miss:

- Positions are learned for 14 x 14 tokens and resized for small views with a scale of (n + 0.1)/14, in both networks.
- Learning rate, weight decay and momentum change at every step, but the teacher's temperature and the freezing of the
  prototypes at every epoch: here the temperature is constant, and the prototypes are frozen for a whole epoch.
- Gradients are clipped for each tensor apart, and before those of the prototypes are dropped.
- Parameters with one dimension have no weight decay; class token and positions do.
- The centre is moved by the teacher's outputs after the loss has used it.
- The teacher moves after the step, with the momentum of that step.
- Stochastic depth is random and left out here.
- The bias of keys has no gradient but rounding noise, which Adam scales up: the test leaves it out."""
import contextlib, io, subprocess, sys, types
from functools import partial
from pathlib import Path
import numpy as np, torch
from torch import nn
from formula import fill, numbers

OUT = Path(__file__).with_name('dino-steps.npz')
EPOCHS, STEPS, BATCH, LOCAL = 5, 20, 4, 3                      # four steps an epoch
SIZES = dict(dim=12, depth=2, heads=3)
HEAD = dict(out_dim=48, hidden_dim=24, bottleneck_dim=8)
RATES = dict(lr=.064, min_lr=1e-6, weight_decay=.04, weight_decay_end=.4, momentum_teacher=.996)   # lr 0.001 at BATCH
CLIP, TEMP = .3, .04
INPUTS = {1: (3, 4*14, 4*6), 2: (10, 14, 6)}                   # channels, side of large and of small views

def views(level, step):
    "Two large views, then small ones, `[BATCH,C,n,n]`, large enough in places to be clipped"
    c, large, small = INPUTS[level]
    sides = [large]*2 + [small]*LOCAL
    return [torch.from_numpy(1.5*numbers(BATCH*c*n*n, 5000 + 100*step + v).reshape(BATCH, c, n, n)).float()
            for v,n in enumerate(sides)]

def start(network, seed=0):
    "The same weights for student and teacher; lengths of prototypes stay 1"
    fill(network)
    with torch.no_grad(): network.head.last_layer.weight_g.fill_(1)
    return network.train()

def _modules(repo):
    "The published files as modules"
    def module(name):
        path = f'HEAD:1-Hierarchical-Pretraining/{name}.py'
        source = subprocess.check_output(['git', '-C', repo, 'show', path], text=True)
        sys.modules[name] = m = types.ModuleType(name)
        exec(compile(source, path, 'exec'), m.__dict__)
        return m
    return [module(n) for n in ('utils', 'vision_transformer', 'vision_transformer4k', 'main_dino')]

def train(level, utils, vits, vits4k, main):
    "Losses, and the state at the end, as `train_one_epoch` of `main_dino.py` makes them"
    kind = dict(depth=SIZES['depth'], num_heads=SIZES['heads'], mlp_ratio=4, qkv_bias=True,
                norm_layer=partial(nn.LayerNorm, eps=1e-6))
    def backbone():
        if level==1: return vits.VisionTransformer(img_size=[56], patch_size=4, embed_dim=SIZES['dim'], **kind)
        return vits4k.VisionTransformer4K(input_embed_dim=10, output_embed_dim=SIZES['dim'], **kind)
    def head():
        return vits.DINOHead(SIZES['dim'], HEAD['out_dim'], norm_last_layer=True, hidden_dim=HEAD['hidden_dim'],
                             bottleneck_dim=HEAD['bottleneck_dim'])
    with contextlib.redirect_stdout(io.StringIO()):
        student, teacher = (utils.MultiCropWrapper(backbone(), head()) for _ in range(2))
    start(student)
    teacher.load_state_dict(student.state_dict())
    teacher.requires_grad_(False)
    loss_fn = main.DINOLoss(HEAD['out_dim'], 2+LOCAL, TEMP, TEMP, 0, EPOCHS)
    opt = torch.optim.AdamW(utils.get_params_groups(student))
    per_epoch = STEPS//EPOCHS
    lrs = utils.cosine_scheduler(RATES['lr']*BATCH/256, RATES['min_lr'], EPOCHS, per_epoch, warmup_epochs=1)
    decays = utils.cosine_scheduler(RATES['weight_decay'], RATES['weight_decay_end'], EPOCHS, per_epoch)
    momenta = utils.cosine_scheduler(RATES['momentum_teacher'], 1, EPOCHS, per_epoch)
    losses, clipped = [], 0
    for it in range(STEPS):
        epoch, images = it//per_epoch, views(level, it)
        for i,group in enumerate(opt.param_groups):
            group['lr'] = lrs[it]
            if i==0: group['weight_decay'] = decays[it]
        loss = loss_fn(student(images), teacher(images[:2]), epoch)
        opt.zero_grad()
        loss.backward()
        clipped += sum(n>CLIP for n in utils.clip_gradients(student, CLIP))
        utils.cancel_gradients_last_layer(epoch, student, 1)
        opt.step()
        with torch.no_grad():
            for q,k in zip(student.parameters(), teacher.parameters()): k.data.mul_(momenta[it]).add_((1-momenta[it])*q)
        losses.append(loss.item())
    print(f'level {level}: loss {losses[0]:.3f} to {losses[-1]:.3f}, {clipped} gradients clipped')
    state = {f'{who}/{n}': p.detach().numpy() for who,m in (('student', student), ('teacher', teacher))
             for n,p in m.named_parameters()}
    return dict(loss=np.array(losses), center=loss_fn.center.numpy(), **state)

def make(repo):
    torch.distributed.init_process_group('gloo', init_method='tcp://127.0.0.1:29513', rank=0, world_size=1)
    torch.set_num_threads(1)
    modules = _modules(repo)
    res = {f'{level}/{k}': v for level in (1, 2) for k,v in train(level, *modules).items()}
    np.savez_compressed(OUT, **res)

if __name__=='__main__': make(sys.argv[1])
