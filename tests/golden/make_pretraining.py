"""Make golden/pretraining/ with version 0.0.1: a training stopped after step 5 of 10, and what it would have become.

    python make_pretraining.py FOLDER
"""
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from fastai.callback.core import Callback

from hipt_nb.dino import RECIPES
from hipt_nb.features import Features, write_features
from hipt_nb.pretrain import pretrain_grid
from hipt_nb.vit import grid_vit
from hipt_nb.weights import save_weights


class Stop(Callback):
    order = 55

    def after_batch(self):
        if self.training and self.learn.it == 5: self.learn.checkpoint.stop(15, None)


out = Path(sys.argv[1])
out.mkdir(parents=True, exist_ok=True)
torch.set_num_threads(1)
torch.manual_seed(0)
rng = np.random.default_rng(0)
attrs = dict(level1_sha256='a', level2_sha256='', mean=[.5]*3, std=[.5]*3, patch_size=256, min_tissue=.1,
             encoder='a', mpp=.5, region_size=1024)
tokens, tissue = rng.normal(size=(12, 4, 4, 4)).astype(np.float16), (rng.random((12, 4, 4)) > .3).astype(np.float16)
write_features(out/'features.h5', Features('a', tokens, None, np.zeros((12, 2), np.int64), tissue, attrs))
vit = grid_vit(4, 6, 1, 2, grid=4)
save_weights(out/'start.safetensors', vit)
recipe = replace(RECIPES['small'], out_dim=8, hidden_dim=8, bottleneck_dim=4, drop_path=.1)
args = dict(recipe=recipe, samples=10*4, batch_size=4, device='cpu', precision='float32', every=4)
try: pretrain_grid([out/'features.h5'], vit, out/'training', cbs=[Stop()], **args)
except KeyboardInterrupt as e: print(e)
with tempfile.TemporaryDirectory() as d:
    pretrain_grid([out/'features.h5'], vit, d, **args)
    shutil.copy(Path(d)/'model.safetensors', out/'whole.safetensors')
