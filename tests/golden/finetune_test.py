"The slide level against golden numbers of the published modules, made by finetune_make.py"
import sys
from pathlib import Path
import numpy as np, pytest, torch
HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
from finetune_formula import fill, local_name, published_name, region_tokens, patch_grids, survival
from hipt_nb.slide_models import LocalModel, SlideModel
from hipt_nb.tasks import hazard_loss
from hipt_nb.vit import vit4k

@pytest.fixture(scope='module')
def golden():
    assert (HERE/'finetune.npz').exists(), "tests/golden/finetune.npz is missing: it is part of the repository"
    return dict(np.load(HERE/'finetune.npz'))

def logits(model, x, name=published_name):
    with torch.no_grad(): return fill(model, name)(x[None]).numpy()

@pytest.mark.parametrize('classes', [2,3])
def test_region_tokens_as_published(golden, classes):
    assert np.abs(logits(SlideModel(n_classes=classes), region_tokens())-golden[f'gp_logits_{classes}']).max() < 1e-5

@pytest.mark.parametrize('classes', [2,3])
def test_patch_grids_as_published(golden, classes):
    ours = logits(SlideModel(n_classes=classes, level2=vit4k()), patch_grids())
    assert np.abs(ours-golden[f'lgp_logits_{classes}']).max() < 1e-5

@pytest.mark.parametrize('classes', [2,3])
def test_without_transformers_as_published(golden, classes):
    ours = logits(LocalModel(n_classes=classes), patch_grids(), local_name)
    assert np.abs(ours-golden[f'local_logits_{classes}']).max() < 1e-5

@pytest.mark.parametrize('alpha', [0., .4])
def test_hazard_loss_as_in_mcat(golden, alpha):
    z, k, event = survival()
    assert abs(hazard_loss(z, k, event, alpha).mean().item()-golden[f'nll_{alpha}']) < 1e-6

def test_pooling_weights_as_published(golden):
    model = fill(SlideModel(), published_name)
    with torch.no_grad(): a = model.pool_attention(region_tokens()[None])[0].numpy()
    assert np.abs(a-golden['gp_attention']).max() < 1e-5 and a.max() > 1.2/len(a)

def test_parameter_counts(golden):
    assert [sum(p.numel() for p in m.parameters()) for m in (SlideModel(n_classes=3),
                                                             SlideModel(n_classes=3, level2=vit4k()),
                                                             LocalModel(n_classes=3))] == golden['params'].tolist()
