"""Make finetune.npz by running the published slide-level modules and losses beside this project: `python
finetune_make.py HIPT MCAT`. HIPT and MCAT are checkouts of these repositories, which are not part of this project."""
import ast, sys, types, contextlib, io, os
from pathlib import Path
import numpy as np, torch
from finetune_formula import fill, region_tokens, patch_grids, survival

def function(path, name):
    "One function of a file whose other imports are not wanted"
    node = next(n for n in ast.parse(path.read_text()).body if isinstance(n, ast.FunctionDef) and n.name==name)
    space = dict(torch=torch); exec(compile(ast.Module([node], []), str(path), 'exec'), space)
    return space[name]

if __name__=='__main__':
    root, mcat = (Path(o).resolve() for o in sys.argv[1:3])
    sys.modules['pdb'] = types.SimpleNamespace(set_trace=lambda: None)  # the published forward stops in a debugger
    os.chdir(root/'2-Weakly-Supervised-Subtyping')
    sys.path[:0] = [str(root/'2-Weakly-Supervised-Subtyping'), str(root/'HIPT_4K')]
    import warnings, vision_transformer4k; vision_transformer4k.warnings = warnings
    from models.model_hierarchical_mil import HIPT_LGP_FC, HIPT_GP_FC, HIPT_None_FC
    out = {}
    with torch.no_grad(), contextlib.redirect_stdout(io.StringIO()):
        for c in (2,3):
            gp, lgp = fill(HIPT_GP_FC(n_classes=c)), fill(HIPT_LGP_FC(n_classes=c))
            out[f'gp_logits_{c}'] = gp(region_tokens())[0].numpy()
            out[f'lgp_logits_{c}'] = lgp(patch_grids().flatten(1,2))[0].numpy()
            local = fill(HIPT_None_FC(n_classes=c))
            out[f'local_logits_{c}'] = local(patch_grids().flatten(1,2))[0].numpy()
        h = gp.global_transformer(gp.global_phi(region_tokens()).unsqueeze(1)).squeeze(1)
        out['gp_attention'] = torch.softmax(gp.global_attn_pool(h)[0].T, 1)[0].numpy()
        out['params'] = np.array([sum(p.numel() for p in m.parameters()) for m in (gp, lgp, local)])
        z, k, event = survival(); nll_loss = function(mcat/'utils'/'utils.py', 'nll_loss')
        for alpha in (0., .4): out[f'nll_{alpha}'] = np.float64(nll_loss(z.sigmoid(), None, k, 1-event, alpha=alpha))
    np.savez_compressed(Path(__file__).resolve().with_name('finetune.npz'), **out)
