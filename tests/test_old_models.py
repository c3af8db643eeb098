"""Slide models that were saved while they were built from torchmil's parts still answer what they answered

`golden/slide-models-torchmil` was made with `golden/make_slide_models.py`, before they had parts of their own."""
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

golden = Path(__file__).resolve().parent/'golden'
sys.path.insert(0, str(golden))
import make_slide_models as made


@pytest.mark.parametrize('kind', ['mean', 'max', 'abmil', 'clam_sb'])
def test_saved_with_torchmil(kind):
    from hipt_nb.finetune import load_slide_model
    if kind=='clam_sb': pytest.importorskip('torchmil')
    model, config = load_slide_model(made.out/kind)
    then, (x, mask) = json.loads((made.out/kind/'answers.json').read_text()), made.batch()
    assert config['classes'] == ['a','b','c'] and model.config['kind'] == kind
    with torch.no_grad():
        np.testing.assert_allclose(model(x, mask), then['scores'], atol=1e-6)
        np.testing.assert_allclose(model.pool_attention(x, mask), then['weights'], atol=1e-6)


def test_saved_and_read_again(tmp_path):
    "What is saved now has its own names"
    from safetensors.torch import load_file
    from hipt_nb.finetune import load_slide_model, save_slide_model
    model = load_slide_model(made.out/'abmil')[0]
    save_slide_model(model, tmp_path, ['a','b','c'])
    assert not any(n.startswith('net.') for n in load_file(tmp_path/'model.safetensors'))
    x, mask = made.batch()
    with torch.no_grad(): assert torch.equal(load_slide_model(tmp_path)[0](x, mask), model(x, mask))
