"""On a GPU every part gives what it gives on a CPU. Skipped where there is none."""
import os, subprocess, sys
from pathlib import Path
import numpy as np, pytest, torch
from torch.nn import functional as F

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU here')
BOTH = 'cpu', 'cuda'

def alike(a, b, at_least):
    "Cosine of two arrays where both are numbers"
    a,b = (torch.as_tensor(np.asarray(o.cpu() if hasattr(o, 'cpu') else o)).float().flatten() for o in (a, b))
    assert torch.equal(a.isnan(), b.isnan())
    ok = ~a.isnan()
    assert (c := F.cosine_similarity(a[ok], b[ok], 0).item())>=at_least, c

@pytest.fixture(scope='module')
def image(): return np.random.default_rng(0).integers(0, 256, (48,48,3), dtype=np.uint8).repeat(16, 0).repeat(16, 1)

def pyramids(preset='hipt-4k', dtype='float32'):
    from hipt_nb.hipt import create_hipt
    return create_hipt(preset), create_hipt(preset, precision=dtype).to('cuda')

@pytest.mark.parametrize('preset', ['hipt-4k', 'hipt-tiny'])
@pytest.mark.parametrize('dtype,at_least', [('float32', .99999), ('bfloat16', .999)])
def test_features_and_attention(image, preset, dtype, at_least):
    cpu, gpu = pyramids(preset, dtype)
    gpu.tune()
    mask = torch.rand(1, 3, 3, generator=torch.Generator().manual_seed(0))>.3
    for m in (None, mask):
        a,b = (o.features(image, m, attention=True) for o in (cpu, gpu))
        assert b['region'].is_cuda and b['region'].dtype==torch.float32
        for k in ('patch','mean','region','both'): alike(a[k], b[k], at_least)
        for x,y in zip(a['attention'], b['attention']): alike(x, y, at_least)

@pytest.mark.parametrize('padding', ['mask', 'published'])
def test_scores_of_shifted_passes(image, padding):
    from hipt_nb.attention import region_scores
    for a,b in zip(*(region_scores(h, image, (0,128,256), padding=padding) for h in pyramids())): alike(a, b, .9999)

def test_compiled_without_breaks():
    from hipt_nb.vit import vit256, vit4k
    for vit,x in ((vit256(), torch.randn(2, 3, 256, 256)), (vit4k(), torch.randn(2, 384, 16, 16))):
        vit, x = vit.cuda().eval(), x.cuda()
        with torch.no_grad(): alike(vit(x), torch.compile(vit, fullgraph=True)(x), .9999)

@pytest.mark.parametrize('level', [1, 2])
def test_views(level):
    "The same random numbers, the same views"
    from hipt_nb.views import GridViews, HE_VIEWS, ImageViews, grid_views, image_views
    g, n = torch.Generator().manual_seed(0), np.arange(4)
    if level==1:
        x = torch.randint(0, 256, (4,3,256,256), generator=g, dtype=torch.uint8)
        for v in (ImageViews(), HE_VIEWS):
            for a,b in zip(image_views(x, n, 0, v), image_views(x.cuda(), n, 0, v)): alike(a, b, .9999)
    else:
        x = torch.randn(4, 24, 16, 16, generator=g)
        mask = torch.rand(4, 16, 16, generator=g)>.5
        between = torch.randn(24, 4, generator=g)
        v = GridViews(turns=True, dropout=.1, noise=.1, shift=1.)
        for p,q in zip(grid_views(x, mask, n, 0, v, between), grid_views(x.cuda(), mask.cuda(), n, 0, v, between)):
            for a,b in zip(p, q): alike(a, b, .9999)

@pytest.mark.parametrize('level,recipe,how', [(1, 'paper', {}), (1, 'small', {}), (2, 'paper', {}), (2, 'small', {}),
                                              (1, 'paper', dict(compile=True)), (2, 'small', dict(save_memory=True))])
def test_training_is_the_same_on_cpu_and_gpu(level, recipe, how):
    "Six steps in float32, the losses of CPU and GPU"
    from dataclasses import replace
    from hipt_nb.dino import RECIPES
    from hipt_nb.loop import dino_learner
    from hipt_nb.pretrain import Pretraining
    from hipt_nb.vit import grid_vit, image_vit
    r = replace(RECIPES[recipe], out_dim=128, hidden_dim=64, bottleneck_dim=32, drop_path=0., freeze_last_layer=.4,
                koleo=.1, koleo_grids=.1)
    g = torch.Generator().manual_seed(0)
    n = [torch.arange(i*8, i*8+8) for i in range(6)]
    if level==1: batches = [(torch.randint(0, 256, (8,3,256,256), generator=g, dtype=torch.uint8), i) for i in n]
    else: batches = [(torch.randn(8, 12, 8, 8, generator=g), torch.rand(8, 8, 8, generator=g)>.2, i) for i in n]
    logs = []
    for device in BOTH:
        torch.manual_seed(0)
        vit = image_vit(24, 2, 3) if level==1 else grid_vit(12, 24, 2, 3, grid=7)
        t = Pretraining(recipe=r, batch_size=8, device=device, precision='float32', **(how if device=='cuda' else {}))
        learn = dino_learner(batches, vit, t)
        learn.fit(1)
        logs.append([[row[k] for k in ('loss','kl','feature_std','feature_rank')] for row in learn.monitor.rows])
    assert np.allclose(*logs, rtol=2e-3, atol=1e-4), np.abs(np.subtract(*logs)).max(0)

def test_accumulated_steps_and_a_smaller_last_one():
    "Gradients of captured passes add up, and a batch of another size takes the ordinary path"
    from dataclasses import replace
    from hipt_nb.dino import RECIPES
    from hipt_nb.loop import dino_learner
    from hipt_nb.pretrain import Pretraining
    from hipt_nb.vit import image_vit
    r = replace(RECIPES['paper'], out_dim=128, hidden_dim=64, bottleneck_dim=32, drop_path=0., freeze_last_layer=0.)
    t = Pretraining(recipe=r, batch_size=8, device='cuda', precision='float32')
    x = torch.randint(0, 256, (21,3,256,256), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    sizes, logs = [8, 8, 5], []
    for part in (8, 4):
        torch.manual_seed(0)
        n = [torch.arange(21)[i:i+k][j:j+part] for i,k in zip((0, 8, 16), sizes) for j in range(0, k, part)]
        learn = dino_learner([(x[i], i) for i in n], image_vit(24, 2, 3), t, steps=3,
                             share=lambda it: (sizes[it], sizes[it]))
        learn.fit(1)
        logs.append([row['loss'] for row in learn.monitor.rows])
    assert len(logs[0])==3 and np.allclose(*logs, rtol=1e-4)

def hipt(*args):
    r = subprocess.run([sys.executable, '-W', 'ignore', '-m', 'hipt_nb.cli', *map(str, args)], capture_output=True,
                       text=True, timeout=300,
                       env={**os.environ,
                            'PYTHONPATH':os.pathsep.join([str(Path(__file__).parents[1]),
                                                          os.environ.get('PYTHONPATH', '')])})
    assert r.returncode==0, r.stderr
    return r

@pytest.fixture(scope='module')
def run(tmp_path_factory):
    "Eight phantoms, tiled; and the run folder"
    from hipt_nb.phantom_cohort import make_cohort
    d = tmp_path_factory.mktemp('gpu')
    manifest = make_cohort(d/'slides', n_slides=8, n_patients=8, size=1024, seed=0, workers=4)
    hipt('tile', manifest, '--out', d/'run', '--region-size', 512, '--blur', 'none')
    return manifest, d/'run'

def test_the_whole_road(run):
    "Pretraining of both levels, features, training, attention, prediction by command, all on the GPU"
    from hipt_nb.features import read_features
    manifest, out = run
    hipt('pretrain', manifest, '--out', out, '--preset', 'hipt-tiny', '--recipe', 'small', '--samples1', 64,
         '--samples2', 32, '--batch-size', 8, '--device', 'cuda')
    hipt('embed', manifest, '--out', out, '--model', 'hipt-tiny', '--device', 'cuda')
    f = [read_features(p) for p in sorted((out/'features'/'hipt-tiny').glob('*.h5'))]
    assert len(f)==8 and all(np.isfinite(o.region).all() for o in f)
    hipt('train', manifest, '--out', out, '--folds', 2, '--epochs', 2, '--device', 'cuda')
    hipt('train', manifest, '--out', out, '--folds', 2, '--epochs', 2, '--level2', 'tuned', '--name', 'tuned',
         '--device', 'cuda')
    hipt('predict', manifest, '--out', out, '--device', 'cuda')
    hipt('attend', manifest, '--out', out, '--model', 'hipt-tiny', '--device', 'cuda')

@pytest.mark.parametrize('precision', ['float32', 'bfloat16', 'float16'])
def test_stopped_and_resumed(tmp_path, precision):
    "A training that was stopped goes on where it was"
    from dataclasses import replace
    from fastai.callback.core import Callback
    from hipt_nb.dino import RECIPES
    from hipt_nb.features import Features, write_features
    from hipt_nb.pretrain import pretrain_grid
    from hipt_nb.vit import grid_vit
    r = np.random.default_rng(0)
    attrs = dict(level1_sha256='a', level2_sha256='', mean=[.5]*3, std=[.5]*3, patch_size=256, min_tissue=.1)
    write_features(tmp_path/'a.h5', Features('a', r.normal(size=(30,4,4,12)).astype(np.float16), None,
                                             np.zeros((30,2),np.int64), (r.random((30,4,4))>.3).astype(np.float16),
                                             attrs))
    class Stop(Callback):
        order = 70
        def after_batch(self):
            if self.learn.it==12: raise KeyboardInterrupt
    def train(out, *cbs):
        torch.manual_seed(0)
        return pretrain_grid([tmp_path/'a.h5'], grid_vit(12, 24, 2, 3, grid=4), tmp_path/out,
                             recipe=replace(RECIPES['small'], out_dim=64, hidden_dim=32, bottleneck_dim=16,
                                            drop_path=.1), samples=160, batch_size=8, device='cuda', every=5,
                                            precision=precision, cbs=cbs)
    whole = train('whole')
    with pytest.raises(KeyboardInterrupt): train('parts', Stop())
    again = train('parts')
    assert len(again)==len(whole)==20 and np.allclose(whole.loss, again.loss, rtol=1e-2)
