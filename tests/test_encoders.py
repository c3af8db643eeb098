"Every encoder of the catalogue runs: random weights, one patch (long; the smallest runs in its notebook)"
import pytest
import torch

from hipt_nb.catalogue import ENCODERS
from hipt_nb.encoders import KnownEncoder


@pytest.mark.faults
@pytest.mark.parametrize('name', [n for n, e in ENCODERS.items() if e.arch])
def test_forward(name):
    m, e = KnownEncoder(name, 'meta').to(torch.bfloat16).to_empty(device='cpu'), ENCODERS[name]
    with torch.inference_mode():
        for p in m.parameters(): p.normal_(0, .02)
        y = m(torch.randn(1, 3, e.patch_size, e.patch_size, dtype=torch.bfloat16))
        tokens = m.model.forward_features(torch.zeros(1, 3, e.size, e.size, dtype=torch.bfloat16))
    assert y.shape==(1, e.dim) and y.isfinite().all() and tokens.shape==(1, e.tokens[0]**2+e.tokens[1], e.width)
