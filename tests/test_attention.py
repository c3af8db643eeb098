"Attention scores against golden numbers of the published HIPT figures, made by tests/golden/make_attention.py"
import sys
from pathlib import Path
import numpy as np, pytest, torch
GOLDEN = Path(__file__).parent/'golden'
sys.path.insert(0, str(GOLDEN))
from formula import fill, picture
from hipt_nb.attention import coverage, factorised, finish, patch_scores, place, region_scores, scale_scores
from hipt_nb.hipt import HIPT, create_hipt
from hipt_nb.vit import grid_vit, image_vit

OFFSETS = 0,128,256,384
# The published code ranks maps after enlarging every cell to 16 x 16 pixels, which are ties of each other: all ranks
# are lower by this
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

def test_ranking_itself(golden):
    "As published: patch by patch; and over a region, whose cells were enlarged to 16 × 16 ties before"
    ranks = lambda a: np.round(2*a.astype(float)).astype(int)  # means of tied ranks are whole or half
    n = 16*16
    np.testing.assert_array_equal(ranks(scale_scores(golden['raw256'], 'rank')*n), ranks(golden['rank256']/100*n))
    big = scale_scores(golden['raw4k'].repeat(16, 1).repeat(16, 2), 'rank')[:,::16,::16]
    np.testing.assert_array_equal(ranks(big*n*n), ranks(golden['rank4k']/100*n*n))
    np.testing.assert_allclose(scale_scores(golden['raw4k'], 'rank')-TIES, golden['rank4k']/100, atol=1e-6)
    assert all(len(np.unique(golden[k])) > 200 for k in ('rank256','rank4k'))

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
    # the shifted grid: whole patches, and those with half their area on tissue; corners have a quarter
    assert sum(seen) == 3*5 + (2*4 + 2*4 + 2*2)

def seeker():
    "A pyramid with weights set by hand attends to the one black token of a grey image, and to its patch"
    m = HIPT(image_vit(4,1,1), grid_vit(4,4,1,1)).eval()
    with torch.no_grad():
        for name,p in m.named_parameters(): p.fill_(1. if 'norm' in name and name.endswith('weight') else 0.)
        m.level1.patch_embed.proj.weight[0] = -1/(3*16*16)  # channel 0: how dark a token is, grey being 0
        m.level2.phi[0].weight[0,0] = 1.
        for level in (m.level1,m.level2):
            qkv = level.blocks[0].attn.qkv
            qkv.bias[0] = 12.                                # every query asks for channel 0
            qkv.weight[4,0] = qkv.weight[8,0] = 1.           # keys and values hold it
            level.blocks[0].attn.proj.weight.copy_(torch.eye(4))
    return m

@pytest.mark.parametrize('padding', ['mask','published'])
@pytest.mark.parametrize('offsets', [(0,), (16,), (128,), (256,), (0,128), (0,128,256,384), (0,16,272)])
def test_attends_to_the_known_token(padding, offsets):
    "At every level, wherever the grid lies and whatever lies beyond the edge"
    for r,c in np.random.default_rng(len(offsets)).integers(32, 47, (2,2)):
        x = torch.zeros(1, 3, 1024, 1024)
        x[..., r*16:(r+1)*16, c*16:(c+1)*16] = -1.
        tokens,patches = region_scores(seeker(), x, offsets, padding=padding, cell=16)
        assert np.nanmax(tokens[0])==tokens[0,r,c] > .99, (r,c)
        assert np.nanmax(patches[0])==patches[0,r,c] > .99, (r,c)

@pytest.mark.parametrize('padding', ['mask','published'])
def test_shortcut_equals_brute_force(padding):
    "Four shifts in one call, two of them by moving the grid, against every pass on pixels that were shifted by hand"
    hipt,image = create_hipt('hipt-tiny'),picture(1024)
    mask = np.ones((4,4), bool); mask[0,1] = mask[3,2] = False
    for m in (None,mask) if padding=='mask' else (None,):
        fast = region_scores(hipt, image, OFFSETS, mask=m, padding=padding, cell=16)
        slow = [by_hand(hipt, image, o, m, padding) for o in OFFSETS]
        for k,passes in enumerate(zip(*slow)):
            # tokens see the same patches again when the grid moves by whole patches
            want = finish(list(passes[:2] if k==0 else passes), m, 16, 1)
            np.testing.assert_allclose(fast[k], want, atol=2e-6)

@torch.no_grad()
def by_hand(hipt, image, o, mask, padding):
    "One pass on a canvas of tokens: cut at the near edges, white at the far ones, both levels"
    white = np.full((1024+o,1024+o,3), 255, np.uint8); white[:1024,:1024] = image
    x = hipt.normalise(white[o:,o:])[..., :1024, :1024]
    k,r = divmod(o, 256)
    inside = np.ones((4,4), bool)
    if o and padding=='mask': inside[4-k-(r>0):],inside[:,4-k-(r>0):] = False,False
    if mask is not None:
        big = np.zeros((8,8)); big[:4,:4] = mask
        fine = big.repeat(2,0).repeat(2,1)[2*k+(r>0):][:,2*k+(r>0):][:8,:8]  # half patches
        inside &= fine.reshape(4,2,4,2).mean((1,3))>=.5
    p = torch.from_numpy(inside)
    t,a = hipt.level1.class_attention(x[0].unfold(1,256,256).unfold(2,256,256).permute(1,2,0,3,4).reshape(16,3,256,256))
    t = (t.view(4,4,-1)*p[...,None]).permute(2,0,1)[None]
    a = a.view(4,4,3,16,16).masked_fill(~p[:,:,None,None,None], torch.nan)
    g = hipt.level2.class_attention(t, p[None])[1][0].masked_fill(~p, torch.nan)
    return [place(v.numpy(), o//16, n, (64,64)) for v,n in ((a.permute(2,0,3,1,4).reshape(3,64,64),1), (g,16))]
