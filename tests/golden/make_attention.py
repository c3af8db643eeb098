"""Make attention.npz by running the published HIPT figures beside this project: `python make_attention.py DIR`. DIR
holds the modules of the HIPT repository's `HIPT_4K` folder and their helper `einops`, which are not part of this
project. The score arrays are caught where the published functions colour them: a colour map is a function, so one
that keeps its input is handed in."""
import sys, tempfile
from functools import partial
from pathlib import Path
from unittest.mock import MagicMock
import numpy as np, torch
from PIL import Image
from torch import nn
from formula import fill, picture

if __name__=='__main__':
    sys.path.insert(0, sys.argv[1])
    # imported there, not used here
    for m in ('webdataset','skimage','skimage.io','skimage.measure'): sys.modules[m] = MagicMock()
    import vision_transformer as v1, vision_transformer4k as v2, hipt_heatmap_utils as hm
    kw = dict(num_heads=6, mlp_ratio=4, qkv_bias=True, norm_layer=partial(nn.LayerNorm, eps=1e-6))
    m1 = fill(v1.VisionTransformer(patch_size=16, embed_dim=48, depth=1, **kw))
    m2 = fill(v2.VisionTransformer4K(input_embed_dim=48, output_embed_dim=48, depth=2, **kw))
    caught,out = [],{}
    def keep(score): caught.append(np.array(score)); return np.zeros((*score.shape,4))
    region = Image.fromarray(picture(4096))
    with tempfile.TemporaryDirectory() as d, torch.no_grad():
        _,a256,a4k = hm.get_region_attention_scores(region, m1, m2, scale=16)
        out.update(raw256=a256[::37], raw4k=a4k[:,::16,::16])
        # patches down, tokens down, patches across, tokens across
        mosaics = np.array([hm.concat_scores256(a256[:,h], size=(16,16)) for h in range(6)]).reshape(6,16,16,16,16)
        out.update(rank256=mosaics.transpose(1,3,0,2,4).reshape(256,6,16,16)[::37],
                   rank4k=np.array([hm.concat_scores4k(a, size=(256,256)) for a in a4k])[:,::16,::16])
        hm.create_hierarchical_heatmaps_indiv(region, m1, m2, d, 'r', scale=16, cmap=keep)
        k4,k256,both = np.array(caught[:6]),np.array(caught[6:12]),np.array(caught[12:48]).reshape(6,6,256,256)
        out.update(region4k=k4[:,4::8,4::8], region256=k256[:,3::11,5::11], both=both[::2,1::2,3::17,5::17])
        caught.clear()
        hm.create_patch_heatmaps_indiv(region.crop((256,512,512,768)), m1, d, 'p', threshold=None, cmap=keep)
        out.update(patch=np.array(caught)[:,8::16,8::16])
    np.savez_compressed(Path(__file__).with_name('attention.npz'),
                        **{k:np.asarray(v, np.float32) for k,v in out.items()})
