"Attention scores against golden numbers of the published HIPT figures, made by tests/golden/make_attention.py"
import sys
from pathlib import Path
import numpy as np, pytest
GOLDEN = Path(__file__).parent/'golden'
sys.path.insert(0, str(GOLDEN))
from formula import fill, picture
from hipt_nb.attention import coverage, factorised, patch_scores, region_scores
from hipt_nb.hipt import HIPT
from hipt_nb.vit import grid_vit, image_vit

OFFSETS = 0,128,256,384
# The published code ranks maps after enlarging every cell to 16 x 16 pixels, which are ties of each other: all ranks are lower by this
TIES = (.5-.5/256)/256

@pytest.fixture(scope='module')
def golden():
    assert (GOLDEN/'attention.npz').exists(), "tests/golden/attention.npz is missing: it is part of the repository"
    return dict(np.load(GOLDEN/'attention.npz'))

@pytest.fixture(scope='module')
def model(): return HIPT(fill(image_vit(48,1,6)), fill(grid_vit(48,48,2,6))).eval()

@pytest.fixture(scope='module')
def image(): return picture(4096)

@pytest.fixture(scope='module')
def published(model, image): return region_scores(model, image, OFFSETS, 'rank', padding='published', cell=16)

def same_ranks(ours, theirs, n=256):
    "Equal but for neighbours in rank whose scores differ in the last bits"
    d = np.abs(ours-theirs)
    assert (d<1e-5).mean() > .99 and d.max() < 4/n, (d.max(), (d<1e-5).mean())

def test_raw_region(golden, model, image):
    t,p = region_scores(model, image)
    assert np.abs(p-golden['raw4k']).max() < 1e-5
    t = t.reshape(6,16,16,16,16).transpose(1,3,0,2,4).reshape(256,6,16,16)
    assert np.abs(t[::37]-golden['raw256']).max() < 1e-5
    assert golden['raw4k'].max() > 3/256 and golden['raw256'].max() > 2/256  # worth comparing: not flat

def test_ranks_of_region(golden, published):
    t,p = published
    same_ranks(p[:,4::8,4::8]-TIES, golden['region4k'])
    same_ranks(t[:,3::11,5::11], golden['region256'])

def test_factorised(golden, published):
    t,p = published
    w = [coverage(4096, 4096, o, padding='published') for o in ((0,128),OFFSETS)]
    both = factorised(t, p-TIES, 'mean', (2*w[0],w[1]))
    same_ranks(both[::2,1::2,3::17,5::17], golden['both'])

def test_patch(golden, model, image):
    s = patch_scores(model.level1, image[512:768,256:512], (0,16), 'rank', padding='published')
    same_ranks(s-TIES, golden['patch'])

def test_tissue_only_costs_tissue(model, image):
    "Level 1 computes what the mask shows, once for each shift that is not a whole patch"
    seen = []
    hook = model.level1.tokeniser.register_forward_pre_hook(lambda m,a: seen.append(len(a[0])))
    mask = np.zeros((16,16), bool); mask[2:5,3:8] = True
    region_scores(model, image, OFFSETS, mask=mask)
    hook.remove()
    assert sum(seen) == 3*5 + (2*4 + 2*4 + 2*2)  # the shifted grid: whole patches, and those with half their area on tissue; corners have a quarter
