"""Each part of the loss on grids, alone: value and gradient of a training step against loops; hidden blocks against a
hand-worked case and lightly's; trainings with new parts that were stopped end with the same bytes"""
import json
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
import numpy as np, pytest, torch
from torch.nn import functional as F
from fastai.callback.core import Callback
from hipt_nb.dino import RECIPES, GridLoss, GridNetwork, N_BLOCKS, block_order, random_mask
from hipt_nb.loop import hidden_cells
from hipt_nb.pretrain import Pretraining, pretrain_grid
from hipt_nb.views import CounterRNG, GridViews
from hipt_nb.vit import grid_vit

GOLDEN = Path(__file__).parent/'golden'
TINY = replace(RECIPES['small'], out_dim=16, hidden_dim=12, bottleneck_dim=8, use_bn=False, standardise=False,
               grids=GridViews(n_local=2), freeze_last_layer=0., clip_grad=0., masked_tokens=0.,
               loss=GridLoss(dino=0., hidden=(.3, .6)))
part = lambda **kw: replace(TINY.loss, **kw)
ALONE = {   # what it is called in the log, and a recipe that has nothing else
    'dino': replace(TINY, loss=part(dino=1.)),
    'masked_mse': replace(TINY, masked_tokens=1.),
    'components': replace(TINY, masked_tokens=1., loss=part(components=3)),
    'cluster_ce': replace(TINY, loss=part(clusters=1., n_clusters=5)),
    'ibot': replace(TINY, loss=part(ibot=1., ibot_dim=10)),
    'ibot, shared head': replace(TINY, loss=part(ibot=1.))}

def features(path, n=30, sides=(4,4), slide='a', seed=0):
    from hipt_nb.features import Features, write_features
    r = np.random.default_rng(seed)
    coords = np.stack(np.meshgrid(*[np.arange(6)*1024]*2), -1).reshape(-1, 2)[:n]
    attrs = dict(level1_sha256='a', mean=[.5]*3, std=[.5]*3, patch_size=256, sizes=[256], min_tissue=.1, mpp=.5,
                 slide_mpp=.5)
    write_features(path, Features(slide, r.normal(size=(n,*sides,12)).astype(np.float16), None, coords,
                                  (r.random((n,*sides))>.2).astype(np.float16), attrs))
    return path

class Taken(Callback):
    "What a step began with, what it was given, its loss and its gradients"
    order = 38
    def before_fit(self): self.begun, self.taught = deepcopy(self.model), deepcopy(self.learn.teacher)
    def before_batch(self): self.given = self.learn.inputs, self.learn.xb, self.learn.samples
    def before_step(self):
        self.value = self.learn.loss_grad.detach()
        self.grads = {n: p.grad.clone() for n,p in self.model.named_parameters() if p.grad is not None}

def step_of(recipe, path, out):
    torch.manual_seed(0)
    vit, taken = grid_vit(12, 12, 2, 3, grid=4), Taken()
    pretrain_grid([path], vit, out, recipe=recipe, samples=6, batch_size=6, device='cpu', precision='float32',
                  anyway=True, cbs=[taken])
    return taken

def cells_of(t, recipe):
    "Number, hidden cells and tokens of every region, from its own pass"
    (x, mask), _, samples = t.given
    hidden = hidden_cells(mask, CounterRNG(samples, 1), recipe.loss)
    for b in range(len(x)):
        seen = torch.where(hidden[b][None], t.begun.masked.token[:,None,None], x[b])
        tokens = t.begun.backbone.tokens(seen[None], mask[b][None])[0]
        yield x[b], mask[b], hidden[b], tokens

def own_scale(x, mask):
    z = x[:,mask]-x[:,mask].mean(1, keepdim=True)
    return z/z.square().mean().clamp(min=1e-6).sqrt()

def by_loops(t, name, recipe):
    "The loss of a step, one region, one cell, one pair of views at a time"
    if name=='dino': return dino_by_loops(t)
    regions = []
    for x,mask,hidden,tokens in cells_of(t, recipe):
        z, at = own_scale(x, mask), {tuple(o): i for i,o in enumerate(mask.nonzero().tolist())}
        values = []
        for r,c in hidden.nonzero().tolist():
            token, feature = tokens[1+4*r+c], z[:,at[r,c]]
            both = torch.cat([token, tokens[0]])
            if name in ('masked_mse', 'components'):
                want = feature if name=='masked_mse' else feature@t.begun.masked.directions
                values.append((t.begun.masked.decoder(both)-want).square().mean())
            elif name=='cluster_ce':
                nearest = (t.begun.masked.centres-feature).square().sum(1).argmin()
                values.append(-t.begun.masked.classifier(both).log_softmax(-1)[nearest])
            else: values.append(ibot_of_cell(t, x, mask, 1+4*r+c, token))
        regions.append(torch.stack(values).mean())
    return torch.stack(regions).mean()

def ibot_of_cell(t, x, mask, i, token):
    head, theirs = ((n.cell_head or n.head) for n in (t.begun, t.taught))
    with torch.no_grad(): p = (theirs(t.taught.backbone.tokens(x[None], mask[None])[0,i][None])[0]/.04).softmax(-1)
    return -(p*(head(token[None])[0]/.1).log_softmax(-1)).sum()

def dino_by_loops(t):
    views, masks = t.given[1]
    s = [t.begun.head(t.begun.backbone(v, m)) for v,m in zip(views, masks)]
    with torch.no_grad(): p = [(t.taught.head(t.taught.backbone(v, m))/.04).softmax(-1)
                               for v,m in zip(views[:2], masks[:2])]
    pairs = [-(p[i]*(s[v]/.1).log_softmax(-1)).sum(-1).mean() for i in (0, 1) for v in range(len(s)) if v!=i]
    return torch.stack(pairs).mean()

@pytest.mark.parametrize('name', ALONE)
def test_each_part_alone(tmp_path, name):
    recipe = ALONE[name]
    t = step_of(recipe, features(tmp_path/'a.h5'), tmp_path/'out')
    want = by_loops(t, name, recipe)
    torch.testing.assert_close(t.value, want.detach(), atol=1e-5, rtol=1e-5)
    named = {n: p for n,p in t.begun.named_parameters() if p.requires_grad}
    grads = torch.autograd.grad(want, named.values(), allow_unused=True)
    for n,g in zip(named, grads):       # and parameters that this part does not use have none
        if g is None: assert n not in t.grads or not t.grads[n].any(), n
        else: torch.testing.assert_close(t.grads[n], g, atol=2e-5, rtol=1e-3, msg=n)
    assert sum(g is not None and bool(g.any()) for g in grads) > 20

def test_blocks_by_hand():
    "A grid of 8 × 8: sides are 2 to 4 cells. The first block is 3 × 2 cells at row 1, column 6, the second 2 × 4 at 0, 0"
    u = torch.full((1, N_BLOCKS, 4), .99)
    u[0,0], u[0,1] = torch.tensor([.5, .1, .2, .9]), torch.tensor([.2, .9, .0, .0])
    order = block_order(u.flatten(1), 8, 8)
    everywhere = torch.ones(1, 8, 8, dtype=torch.bool)
    drawn = lambda text: torch.tensor([[c=='#' for c in row] for row in text.split()])
    assert torch.equal(random_mask(everywhere, order, 6/64)[0], drawn(
        '........ ......## ......## ......## ........ ........ ........ ........'))
    assert torch.equal(random_mask(everywhere, order, 11/64)[0], drawn(   # the second is cut short, row by row
        '####.... #.....## ......## ......## ........ ........ ........ ........'))
    holes = everywhere.clone()
    holes[0,1:3,6] = False                      # no tissue: not hidden, and the next block begins earlier
    assert torch.equal(random_mask(holes, order, 6/62)[0], drawn(
        '##...... .......# .......# ......## ........ ........ ........ ........'))

def beside(mask):
    "How many hidden cells have a hidden cell below or to the right, on average"
    m = mask.float()
    return float((m[:,1:]*m[:,:-1]).sum()+(m[:,:,1:]*m[:,:,:-1]).sum())/float(m.sum())

def test_blocks_as_lightlys():
    "As many cells, and about as close together, as those of `random_block_mask` (golden/make_lightly.py)"
    for g in json.loads((GOLDEN/'lightly.json').read_text())['blocks']:
        n, tissue = g['side'], torch.ones(400, g['side'], g['side'], dtype=torch.bool)
        rng = CounterRNG(np.arange(400))
        ours = random_mask(tissue, block_order(rng.uniform(4*N_BLOCKS), n, n), g['share'])
        single = random_mask(tissue, rng.uniform(n*n), g['share'])
        assert abs(float(ours.float().mean())-g['mean']) < .02
        assert abs(beside(ours)-g['beside']) < .15 and beside(single) < g['beside']-.2

NEW = dict(
    everything=replace(TINY, masked_tokens=1., components=8, standardise=True,
                       grids=GridViews(n_local=2, posterise=8, anywhere=True, side=5, min_tissue=.25, shift=1.,
                                       components=True),
                       loss=GridLoss(clusters=1., ibot=1., ibot_dim=10, n_clusters=5, components=3, hidden=(.2,.6),
                                     blocks=True, chosen=.7, augmented=True)),
    large_views=replace(TINY, loss=part(dino=1., ibot=1., large_views=True, blocks=True, chosen=.5)),
    grids=replace(RECIPES['grids'], components=6, loss=replace(RECIPES['grids'].loss, n_clusters=5)))
NETWORKS = dict(everything=GridNetwork('alibi', registers=2, readout='both'), large_views=GridNetwork('alibi'),
                grids=RECIPES['grids'].network)

class Stop(Callback):
    order = 70
    def after_batch(self):
        if self.learn.it==9: raise RuntimeError('the power is gone')

@pytest.mark.parametrize('name', NEW)
def test_stopped_and_continued(tmp_path, name):
    "Whatever is learned: the same bytes as without the interruption"
    paths = [features(tmp_path/f'{s}.h5', slide=s, seed=i) for i,s in enumerate('abc')]
    def train(out, **kw):
        torch.manual_seed(0)
        network = NETWORKS[name]
        vit = grid_vit(12, 12, 2, 3, positions=network.positions, registers=network.registers, readout=network.readout)
        pretrain_grid(paths, vit, out, recipe=NEW[name], samples=14*6, batch_size=6, device='cpu', every=4,
                      precision='float32', anyway=True, **kw)
        return [(out/f).read_bytes() for f in ('model.safetensors', 'log.csv', 'config.json')]
    whole = train(tmp_path/'whole')
    with pytest.raises(RuntimeError, match='power'): train(tmp_path/'parts', cbs=[Stop()])
    assert torch.load(tmp_path/'parts'/'checkpoint.pt', weights_only=True)['it']==8
    assert train(tmp_path/'parts')==whole
