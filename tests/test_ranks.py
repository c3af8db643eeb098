"Several processes train as one does, and what goes wrong in a pretraining is said in a line"
import os, subprocess, sys
from dataclasses import replace
from pathlib import Path
import numpy as np, pytest

ROOT = Path(__file__).parents[1]
SCRIPT = """
import sys, torch
from dataclasses import replace
from hipt_nb.vit import grid_vit
from hipt_nb.dino import RECIPES, GridLoss
from hipt_nb.pretrain import pretrain_grid
torch.set_num_threads(1); torch.manual_seed(0)
recipe = replace(RECIPES['small'], out_dim=64, hidden_dim=32, bottleneck_dim=16, drop_path=0.,
                 use_bn=sys.argv[4]!='parts', centering='sinkhorn' if sys.argv[4]=='sinkhorn' else 'mean',
                 masked_tokens=0. if sys.argv[4]=='sinkhorn' else 30.)
if sys.argv[4]=='cells':   # clusters and iBOT in blocks, beside DINO and a regression of components
    recipe = replace(recipe, masked_tokens=1., components=8, loss=GridLoss(
        clusters=1., ibot=1., ibot_dim=32, n_clusters=6, components=3, hidden=(.2, .6), blocks=True, chosen=.7,
        augmented=True))
pretrain_grid([sys.argv[1]], grid_vit(12, 24, 2, 3, grid=4), sys.argv[2], recipe=recipe, samples=20*8-3, batch_size=8,
              device='cpu', every=7, precision='float32', accumulate=int(sys.argv[3]))
"""

def features(path, seed=0, sides=(4,4), n=30, name='a', **attrs):
    from hipt_nb.features import Features, write_features
    r = np.random.default_rng(seed)
    attrs = dict(dict(level1_sha256='a', mean=[.5]*3, std=[.5]*3, patch_size=256, sizes=[256], min_tissue=.1), **attrs)
    write_features(path, Features(name, r.normal(size=(n,*sides,12)).astype(np.float16), None, np.zeros((n,2),np.int64),
                                  (r.random((n,*sides))>.3).astype(np.float16), attrs))
    return path

def run(out, data, ranks=1, accumulate=1, centering='mean'):
    env = {**os.environ, 'OMP_NUM_THREADS':'1', 'PYTHONPATH':str(ROOT)}
    script = out.with_suffix('.py'); script.write_text(SCRIPT)
    start = ([sys.executable, '-W', 'ignore']
             + (['-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', str(ranks)] if ranks>1 else []))
    p = subprocess.run([*start, str(script), str(data), str(out), str(accumulate), centering], env=env,
                       capture_output=True, text=True, timeout=240)
    assert p.returncode==0, p.stderr[-2000:]
    from hipt_nb.monitor import read_log
    from safetensors.torch import load_file
    return read_log(out/'log.csv'), load_file(out/'model.safetensors')

@pytest.mark.parametrize('centering', ['mean', 'cells', pytest.param('sinkhorn', marks=pytest.mark.faults)])
def test_two_processes_train_as_one(tmp_path, centering):
    data = features(tmp_path/'a.h5')
    (one, m1), (two, m2) = run(tmp_path/'one', data,
                               centering=centering), run(tmp_path/'two', data, 2, centering=centering)
    assert len(one)==len(two)==20 and one.samples.tolist()==two.samples.tolist()==[*range(8, 153, 8), 157]
    for c in ('loss', 'kl', 'center_norm', 'teacher_entropy', *(('cluster_ce', 'ibot') if centering=='cells' else ())):
        np.testing.assert_allclose(two[c], one[c], atol=1e-5, rtol=1e-5)
    for k in m1:                       # but for the biases of keys, whose gradient is rounding noise
        parts = zip(m1[k].chunk(3), m2[k].chunk(3)) if k.endswith('qkv.bias') else [(m1[k], m2[k])]
        apart = [(a-b).abs().max() for a,b in parts]
        assert max(apart[::2]) < 1e-5, k

@pytest.mark.faults
def test_parts_and_processes_together(tmp_path):
    data = features(tmp_path/'a.h5')
    # without batch normalisation, which has the rows of a part only
    (one, _), (two, _) = (run(tmp_path/'one', data, centering='parts'),
                          run(tmp_path/'two', data, 2, accumulate=2, centering='parts'))
    np.testing.assert_allclose(two.loss, one.loss, atol=1e-4, rtol=1e-4)

def test_three_levels(tmp_path):
    "Level 2 learns from squares of patches, level 3 from what level 2 made of them, by the same function"
    import torch
    from hipt_nb.core import HIPTError
    from hipt_nb.dino import RECIPES
    from hipt_nb.embed import climb_features
    from hipt_nb.features import read_features, write_features
    from hipt_nb.hipt import HIPT
    from hipt_nb.samples import GridSource
    from hipt_nb.pretrain import load_level, pretrain_grid
    from hipt_nb.vit import grid_vit, image_vit
    torch.manual_seed(0)
    hipt = HIPT(image_vit(12, 1, 3), grid_vit(12, 8, 1, 2, grid=4), grid_vit(8, 6, 1, 2, grid=4),
                patch_size=(256,512)).eval()
    sha = hipt.weights_sha256
    path = features(tmp_path/'a.h5', sides=(6,6), sizes=[256,512], level1_sha256=sha['level1'])
    squares = GridSource([path], level=2)
    f = read_features(path)
    assert squares.side==(2,2) and len(squares)==int(f.mask(2).sum())
    x, mask = squares(np.array([[5,0]]))
    i, m, r, c = squares.units[5]
    np.testing.assert_array_equal(x[0].permute(1,2,0), f.patch[m, 2*r:2*r+2, 2*c:2*c+2].astype(np.float32))
    np.testing.assert_array_equal(mask[0], f.mask()[m, 2*r:2*r+2, 2*c:2*c+2])
    tiny = dict(recipe=replace(RECIPES['small'], out_dim=32, hidden_dim=16, bottleneck_dim=8), samples=32, batch_size=8,
                device='cpu', precision='float32')
    assert len(pretrain_grid([path], hipt, tmp_path/'level2', level=2, **tiny))==4
    load_level(hipt.level2, tmp_path/'level2')
    write_features(path, climb_features(hipt, f, hipt.weights_sha256, levels=2))
    regions = GridSource([path], level=3)
    assert regions.side==(3,3) and regions(np.array([[0,0]]))[0].shape==(1,8,3,3)
    before = hipt.weights_sha256
    x, mask = regions(np.array([[k,0] for k in range(20)]))
    log = pretrain_grid([path], hipt, tmp_path/'level3', level=3, judge=((x, mask), np.arange(20)%2, np.arange(20)),
                        **tiny)
    assert 0<=log.knn_accuracy.iloc[-1]<=1 and log.knn_accuracy.isna().sum()==2
    load_level(hipt.level3, tmp_path/'level3'); after = hipt.weights_sha256
    assert np.isfinite(log.loss).all() and after['level3']!=before['level3'] and after['level2']==before['level2']
    with pytest.raises(HIPTError, match='made by another level 1'):
        pretrain_grid([path], HIPT(image_vit(12, 1, 3), hipt.level2, hipt.level3, patch_size=(256,512)), tmp_path/'x',
                      **tiny)

def test_nan_stops_with_the_last_good_checkpoint(tmp_path):
    import torch
    from fastai.callback.core import Callback
    from hipt_nb.core import HIPTError
    from hipt_nb.dino import RECIPES
    from hipt_nb.monitor import read_log
    from hipt_nb.pretrain import pretrain_grid
    from hipt_nb.vit import grid_vit
    class Poison(Callback):
        def before_batch(self):
            if self.learn.it==7: self.model.backbone.cls_token.data.fill_(float('nan'))
    torch.manual_seed(0)
    args = dict(recipe=replace(RECIPES['small'], out_dim=32, hidden_dim=16, bottleneck_dim=8), samples=80, batch_size=8,
                device='cpu', every=3, precision='float32')
    data, vit = features(tmp_path/'a.h5'), grid_vit(12, 24, 2, 3, grid=4)
    with pytest.raises(HIPTError, match='the loss is nan at step 7: the last checkpoint is kept'):
        pretrain_grid([data], vit, tmp_path/'out', cbs=[Poison()], **args)
    kept = torch.load(tmp_path/'out'/'checkpoint.pt', weights_only=True)
    assert kept['it']==6 and all(t.isfinite().all() for t in kept['student'].values())
    assert len(read_log(tmp_path/'out'/'log.csv'))==6
    assert not (tmp_path/'out'/'model.safetensors').exists()
    pretrain_grid([data], vit, tmp_path/'out', **args)
    assert (tmp_path/'out'/'model.safetensors').exists()

def test_a_broken_file_in_the_middle_costs_its_samples_only(tmp_path, caplog):
    import h5py
    from hipt_nb.samples import GridSource
    a, b = features(tmp_path/'a.h5', 0), features(tmp_path/'b.h5', 1, name='b')
    whole = GridSource([a, b])
    # cut short: regions 3 and on are gone
    with h5py.File(a, 'r+') as h: del h['patch']; h['patch'] = np.zeros((3,4,4,12), np.float16)
    source, where = GridSource([a, b]), np.array([[20,0],[45,0]])
    x, _ = source(where)
    first = next(i for i,u in enumerate(source.units) if u[0]==1)
    np.testing.assert_array_equal(x[0], whole(np.array([[first,0]]))[0][0])
    np.testing.assert_array_equal(x[1], whole(where[1:])[0][0])
    assert caplog.text.count("slide 'a' cannot be read in places")==1

def test_starts_from_given_weights(tmp_path):
    import torch, timm
    from safetensors.torch import save_file
    from hipt_nb.core import HIPTError
    from hipt_nb.pretrain import start_from
    from hipt_nb.vit import image_vit
    theirs = timm.create_model('vit_tiny_patch16_224', pretrained=False, num_classes=0).eval()
    save_file(theirs.state_dict(), tmp_path/'timm.safetensors')
    ours = start_from(image_vit(192, 12, 3), tmp_path/'timm.safetensors').eval()
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad(): assert (ours(x)-theirs(x)).abs().max() < 1e-4
    torch.save(dict(teacher={f'module.backbone.{k}':v for k,v in theirs.state_dict().items()}
                    | {'module.head.mlp.0.bias': torch.zeros(3)}, epoch=3), tmp_path/'dino.pth')
    assert torch.equal(start_from(image_vit(192, 12, 3), tmp_path/'dino.pth').cls_token, ours.cls_token)
    with pytest.raises(HIPTError, match='does not fit the model'): start_from(image_vit(96, 4, 3), tmp_path/'dino.pth')
    with pytest.raises(HIPTError, match="no weights in"): start_from(image_vit(96, 4, 3), tmp_path/'nowhere.pth')
