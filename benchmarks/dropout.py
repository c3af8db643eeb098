"""Dropout in slide models: ours from random bytes against torch's own, over a whole `hipt train`.

Every side reads the features, trains and tests all folds and writes the results. The sides take turns; what counts is
CPU time, since it hardly depends on what else the machine does. `torch` has torch's dropout and attention,
`torch_attention` has torch's attention (and the dropout of its weights) with our dropout elsewhere."""
import argparse
import json
import platform
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import torch
from torch import nn

from finetune import CLASSES, make_cohort, plain_dropout
from hipt_nb import training
from hipt_nb.evaluate import patient_folds
from hipt_nb.features import load_bags
from hipt_nb.finetune import cross_validate
from hipt_nb.run import Run
from hipt_nb.slide_models import SelfAttention


def torch_attention(model):
    "The same model with torch's attention"
    for part in model.modules():
        if isinstance(part, SelfAttention): part.__class__ = nn.MultiheadAttention
    return model


def seconds(run, df, folds, epochs, name, change):
    "CPU time of a whole training"
    make = training.new_model
    training.new_model = lambda *args: change(make(*args))
    start = time.process_time()
    bags = load_bags(run, df, 'made-up')
    cross_validate(bags, folds, run.root/name, CLASSES, epochs=epochs)
    spent = time.process_time()-start
    training.new_model = make
    shutil.rmtree(run.root/name)
    return spent


def main(slides, regions, epochs, folds, repeats, out):
    torch.set_num_threads(1)
    sides = dict(ours=lambda model: model, torch=plain_dropout, torch_attention=torch_attention)
    with tempfile.TemporaryDirectory() as d:
        run = Run(d)
        df = make_cohort(run, slides, regions)
        splits = patient_folds(df, folds)
        for name, change in sides.items(): seconds(run, df, splits[:1], 1, name, change)  # warm up
        spent = {name: [] for name in sides}
        for _ in range(repeats):
            for name, change in sides.items(): spent[name].append(seconds(run, df, splits, epochs, name, change))
    cpu = f'{platform.machine()} CPU ({torch.backends.cpu.get_cpu_capability()}), 1 thread'
    res = dict(machine=cpu, torch=torch.__version__, slides=slides, regions=regions, epochs=epochs, folds=folds)
    for name, times in spent.items(): res[f'seconds_{name}'] = [round(t, 2) for t in times]
    for name in ('torch', 'torch_attention'):
        ratios = sorted(t/o for t, o in zip(spent[name], spent['ours']))
        res[f'{name}_over_ours'] = [round(r, 3) for r in (statistics.median(ratios), ratios[0], ratios[-1])]
    print(json.dumps(res, indent=1))
    if out: Path(out).write_text(json.dumps(res, indent=1)+'\n')


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--slides', type=int, default=200)
    p.add_argument('--regions', type=int, default=40)
    p.add_argument('--epochs', type=int, default=8)
    p.add_argument('--folds', type=int, default=2)
    p.add_argument('--repeats', type=int, default=5)
    p.add_argument('--out', default='benchmarks/results/dropout-cpu.json')
    main(**vars(p.parse_args()))
