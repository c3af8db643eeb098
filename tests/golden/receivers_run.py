"A small run with features of a foundation model and region tokens above them, the same wherever it is made"
from dataclasses import replace

import numpy as np
import pandas as pd

from hipt_nb.features import write_features
from hipt_nb.foreign import import_features, toy_flat
from hipt_nb.run import Run

NAME = 'uni2-h-hipt-tiny'


def make_run(folder):
    "The run, and its manifest: features hold the row and column of each patch in their first two numbers"
    run = Run(folder)
    for i in range(2):
        flat = replace(toy_flat(i, dim=8), encoder_name='uni2-h')
        cells = np.round((flat.coords-flat.coords.min(0))/flat.side)
        flat.x[:, :2] = cells[:, ::-1]+1
        placed = import_features(run, flat, grid=8)
        tokens = placed.features.patch.astype(np.float32).mean((1, 2))[:, :4]
        made = placed.features.made_by | dict(encoder_name=NAME, level2_sha256='cd34')
        write_features(run.features(NAME, flat.slide_id), replace(placed.features, region=tokens, made_by=made))
    return run, pd.DataFrame([dict(path=f'gone/s{i:02}.svs', slide_id=f's{i:02}') for i in range(2)])
