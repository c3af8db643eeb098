"""Twenty optimiser steps against the published DINO training, both levels.

What that did is in golden/dino-steps.npz, made by golden/make_dino_steps.py beside the project."""
import sys
from pathlib import Path
from types import SimpleNamespace
import numpy as np, pytest, torch

GOLDEN = Path(__file__).resolve().parent/'golden'
sys.path.insert(0, str(GOLDEN))
import make_dino_steps as published

@pytest.fixture(scope='module')
def golden():
    assert published.OUT.exists(), "tests/golden/dino-steps.npz is missing: it is part of the repository"
    return np.load(published.OUT)

def trained(level):
    "Our loop with the views of the published one: the log, and the learner after the last step"
    from fastai.callback.core import Callback
    from hipt_nb.dino import Recipe
    from hipt_nb.loop import Views, dino_learner
    from hipt_nb.views import GridViews, ImageViews
    from hipt_nb.vit import grid_vit, image_vit
    p = published
    class Given(Callback):
        order = Views.order
        def before_batch(self):
            v = p.views(level, self.learn.it)
            masks = [torch.ones(len(o), *o.shape[2:], dtype=torch.bool) for o in v]
            self.learn.xb = (v,) if level==1 else (v, masks)
    recipe = Recipe(**p.RATES, **p.HEAD, warmup=1/p.EPOCHS, freeze_last_layer=1/p.EPOCHS, clip_grad=p.CLIP,
                    drop_path=0., teacher_temp=p.TEMP, images=ImageViews(n_local=p.LOCAL),
                    grids=GridViews(n_local=p.LOCAL))
    vit = image_vit(**p.SIZES, patch=4, img_size=56) if level==1 else grid_vit(10, **p.SIZES)
    t = SimpleNamespace(recipe=recipe, seed=0, device='cpu', save_memory=False, compile=False, graphs=False,
                        precision='float32', batch_size=p.BATCH, mean=None, std=None)
    batches = [(torch.zeros(p.BATCH, 1), torch.arange(p.BATCH)+p.BATCH*i) for i in range(p.STEPS)]
    learn = dino_learner(batches, vit, t)
    learn.remove_cb(learn.views)
    learn.add_cb(Given())
    p.start(learn.model)
    learn.teacher.load_state_dict(learn.model.state_dict())
    learn.fit(1)
    return learn

def without_key_biases(name, p):
    """Biases of keys change no attention, as softmax ignores what is added to a whole row. Their gradient is rounding
    noise, which Adam scales up to whole steps of another direction on every machine."""
    p = np.asarray(p)
    return np.delete(p, slice(len(p)//3, 2*len(p)//3)) if name.endswith('qkv.bias') else p

def apart(net, want, who):
    "The largest difference of a parameter"
    names = dict(net.named_parameters())
    assert {f'{who}/{n}' for n in names}=={k for k in want if k.startswith(f'{who}/')}
    return {n: np.abs(without_key_biases(n, p.detach())-without_key_biases(n, want[f'{who}/{n}'])).max()
            for n,p in names.items()}

@pytest.mark.parametrize('level', [1, 2])
def test_twenty_steps_as_published(golden, level):
    want = {k.removeprefix(f'{level}/'): golden[k] for k in golden.files if k.startswith(f'{level}/')}
    learn = trained(level)
    np.testing.assert_allclose([r['loss'] for r in learn.monitor.rows], want['loss'], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(learn.loss_func.center, want['center'], rtol=0, atol=1e-5)
    for who,net in ('student', learn.model), ('teacher', learn.teacher):
        assert max(apart(net, want, who).values()) < 1e-5
        far = apart(published.start(net), want, who)        # all have moved, so they are worth comparing
        assert min(d for n,d in far.items() if not n.endswith('weight_g')) > (1e-3 if who=='student' else 1e-5)
