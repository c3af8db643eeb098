"Our ViTs against golden numbers of the published HIPT modules (tests/golden/make_vit.py); checkpoints of other NumPys"
import sys, zipfile
from pathlib import Path
import numpy as np, pytest, torch
GOLDEN = Path(__file__).parent/'golden'
sys.path.insert(0, str(GOLDEN))
from formula import fill, image, grid, summed, IMAGES, GRIDS
from hipt_nb.vit import image_vit, grid_vit, vit256, vit4k
from hipt_nb.core import HIPTError
from hipt_nb.weights import read_checkpoint

@pytest.fixture(scope='module')
def golden():
    assert (GOLDEN/'vit.npz').exists(), "tests/golden/vit.npz is missing: it is part of the repository"
    return dict(np.load(GOLDEN/'vit.npz'))

@pytest.fixture(scope='module')
def models(): return {'image':fill(vit256()), 'grid':fill(vit4k())}

@pytest.mark.parametrize('kind,size', [('image',s) for s in IMAGES] + [('grid',s) for s in GRIDS])
def test_as_published(golden, models, kind, size):
    m,x = models[kind],(image if kind=='image' else grid)(*size)
    with torch.no_grad(): t,a = m.forward_attention(x)
    name = f'{kind}_{size[0]}x{size[1]}_'
    for k,v in dict(cls=t[0,0], token=t[0,17], attention=a[0,:,0,1:], all_tokens=summed(t[0]),
                    all_attention=summed(a[0])).items():
        assert np.abs(v.numpy()-golden[name+k]).max() < 1e-5, name+k

def test_exact_positions_differ(golden, models):
    "The published numbers really depend on the +0.1"
    m = models['grid']; m.positions = 'exact'
    with torch.no_grad(): d = np.abs(m(grid(16,16))[0].numpy()-golden['grid_16x16_cls']).max()
    m.positions = 'dino'
    assert d > 1e-3

def test_golden_is_not_flat(golden):
    "Weights by formula give attention worth comparing: rows far from uniform"
    for k,v in golden.items():
        if k.endswith('attention') and 'all' not in k: assert v.max() > 2/v.shape[1], k

SMALL = dict(image=lambda: image_vit(24, 2, 3, patch=8, img_size=32, drop_path=.1),
             grid=lambda: grid_vit(12, 24, 2, 3, grid=4, drop_path=.1))

@pytest.mark.parametrize('kind', SMALL)
@pytest.mark.parametrize('how', ['features','masked','attention','training','checkpointing'])
def test_compiles_as_one_graph(kind, how):
    "torch.compile sees the whole model, without a break, and its answer is the same (eager backend: no compiler)"
    torch._dynamo.reset()
    m = SMALL[kind]().train(how in ('training','checkpointing')); m.checkpointing = how=='checkpointing'
    x = image(40,32)[:,:,:40,:32] if kind=='image' else grid(5,4,12)
    mask = torch.arange(20).view(1,5,4)%3>0
    fn = {'masked':lambda x: m(x, mask), 'attention':lambda x: m.class_attention(x)[1]}.get(how, m)
    with torch.set_grad_enabled(m.training):
        torch.manual_seed(0); want = fn(x)
        torch.manual_seed(0); got = torch.compile(fn, fullgraph=True, backend='eager')(x)
    assert torch.allclose(want, got, atol=1e-6)

def test_checkpoint_of_old_numpy(tmp_path):
    "Learning rates pickled under NumPy 1's module names are read, another global under the same ways is refused"
    torch.save(dict(teacher={'w':torch.ones(2)}, lr=np.float64(.5)), tmp_path/'new.pth')
    def renamed(name, a, b):
        with zipfile.ZipFile(tmp_path/'new.pth') as src, zipfile.ZipFile(tmp_path/name, 'w') as dst:
            for i in src.infolist():
                data = src.read(i)
                dst.writestr(i, data.replace(a, b) if i.filename.endswith('data.pkl') else data)
        return tmp_path/name
    for f in (tmp_path/'new.pth', renamed('old.pth', b'numpy._core.multiarray', b'numpy.core.multiarray')):
        assert read_checkpoint(f)['lr']==.5
    with pytest.raises(HIPTError, match='evil.pth is refused'):
        read_checkpoint(renamed('evil.pth', b'numpy._core.multiarray\nscalar', b'os\nsystem'))
