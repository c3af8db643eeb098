"""Make vit.npz by running the published HIPT modules beside this project: `python make_vit.py DIR`. DIR holds
`vision_transformer.py` and `vision_transformer4k.py` of the HIPT repository's `HIPT_4K` folder, which are not part
of this project."""
import sys, contextlib, io
from pathlib import Path
import numpy as np, torch
from formula import fill, image, grid, summed, IMAGES, GRIDS

def outputs(model, x):
    "Class token, one other token, the class token's row of the last block's attention; a number for all others"
    with torch.no_grad(): t,a = model.get_intermediate_layers(x)[0], model.get_last_selfattention(x)
    return dict(cls=t[0,0], token=t[0,17], attention=a[0,:,0,1:], all_tokens=summed(t[0]), all_attention=summed(a[0]))

if __name__=='__main__':
    sys.path.insert(0, sys.argv[1])
    import vision_transformer as v1, vision_transformer4k as v2
    with contextlib.redirect_stdout(io.StringIO()): m1,m2 = fill(v1.vit_small()),fill(v2.vit4k_xs())
    out = {}
    for kind,model,make,sizes in [('image',m1,image,IMAGES),('grid',m2,grid,GRIDS)]:
        for h,w in sizes:
            for k,v in outputs(model, make(h,w)).items(): out[f'{kind}_{h}x{w}_{k}'] = v.numpy()
    np.savez_compressed(Path(__file__).with_name('vit.npz'), **out)
