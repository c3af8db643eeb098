"Slide models saved while `mean`, `max`, `abmil` and `clam_sb` were built from torchmil's parts, and what they answered"
import json
from pathlib import Path
import torch
from hipt_nb.baselines import make_slide_model
from hipt_nb.finetune import save_slide_model

out = Path(__file__).parent/'slide-models-torchmil'

def batch():
    "A batch of two bags by a formula, the second shorter"
    x = torch.sin(torch.arange(2*5*6).float()).view(2, 5, 6)
    mask = torch.ones(2, 5, dtype=torch.bool)
    mask[1,3:] = False
    return x, mask

if __name__=='__main__':
    for kind in ('mean', 'max', 'abmil', 'clam_sb'):
        model, (x, mask) = make_slide_model(kind, 6, 3, dim=4, seed=1).eval(), batch()
        save_slide_model(model, out/kind, ['a','b','c'], made_by=dict(encoder_name='toy'))
        with torch.no_grad():
            said = dict(scores=model(x, mask).tolist(), weights=model.pool_attention(x, mask).tolist())
        (out/kind/'answers.json').write_text(json.dumps(said)+'\n')
