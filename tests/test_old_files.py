"""Files of an earlier version: they still read, mean what they meant, and a run that was begun then goes on

`golden/run-v0` was made by 0.0.1, whose files carry no schema, with `golden/make_run_v0.py`."""
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

golden = Path(__file__).resolve().parent/'golden'
sys.path.insert(0, str(golden))
import make_run_v0 as v0

old = golden/'run-v0'
slide_ids = [f'P{k:02d}-1' for k in range(1, 9)]
slide_models = {'hipt-mini': 'region', 'hipt-mini-mean': 'region', 'hipt-mini-cox': 'region',
                'hipt-mini-tuned-level2': 'patch'}       # which tokens each reads


# What was written then, read now

@pytest.fixture(scope='module')
def run(tmp_path_factory):
    "A copy of the run with its slides"
    from hipt_nb.run import Run
    folder = tmp_path_factory.mktemp('v0')/'run'
    shutil.copytree(old, folder)
    v0.slides(folder/'slides')
    return Run(folder)


@pytest.fixture(scope='module')
def manifest(run):
    from hipt_nb.cohort import read_manifest
    return read_manifest(run.root/'cohort.csv')


def test_manifest_with_the_old_name_of_the_pixel_size(run, manifest):
    from hipt_nb.tiling import open_row
    assert list(manifest.slide_id) == slide_ids
    with open_row(next(manifest.itertuples())) as slide: assert slide.mpp == .5
    text = (run.root/'cohort.csv').read_text().replace('0.5,3,1', '0.25,3,1')   # it counts, against what the file says
    (run.root/'finer.csv').write_text(text)
    from hipt_nb.cohort import read_manifest
    with open_row(next(read_manifest(run.root/'finer.csv').itertuples())) as slide: assert slide.mpp == .25


def test_tiles(run):
    from hipt_nb.tiling import read_tiles
    for s in slide_ids:
        t = read_tiles(run.root/'tiles'/f'{s}.h5')
        assert t.slide_id == s and len(t) == 4 and t.grid == (2, 2)
        assert (t.slide_mpp, t.mpp, t.region_size, t.patch_size) == (.5, .5, 512, 256)
        assert 0 < t.mask().sum() <= 16


def test_features(run):
    from hipt_nb.features import read_features
    for s in slide_ids:
        f = read_features(run.root/'features'/'hipt-mini'/f'{s}.h5')
        assert f.slide_id == s and len(f) == 4
        assert f.patch.shape == (4, 2, 2, 12) and f.region.shape == (4, 12) and f.flat().any()


def test_maps(run):
    from hipt_nb.attend import read_maps
    m = read_maps(run.root/'maps'/'hipt-mini'/'P01-1.h5')
    assert m.slide_id == 'P01-1' and m.patch.shape == (4, 2, 2, 2) and m.token.shape == (1, 2, 32, 32)
    assert np.nansum(m.region) == pytest.approx(1, abs=1e-3)


def test_pyramid(run):
    "Its level 2 makes the same region tokens of the patch tokens that were kept"
    import torch
    from hipt_nb.features import read_features
    from hipt_nb.hipt import HIPT
    hipt = HIPT.from_pretrained(run.root/'models'/'hipt-mini')
    sha = hipt.weights_sha256
    for s in slide_ids:
        f = read_features(run.root/'features'/'hipt-mini'/f'{s}.h5')
        assert [f.made_by[f'level{k}_sha256'] for k in (1, 2)] == [sha['level1'], sha['level2']]
        patch, mask = torch.from_numpy(f.patch).float(), torch.from_numpy(f.mask())
        with torch.inference_mode(): again = hipt.climb(2, patch, mask)
        np.testing.assert_allclose(again[0][:, 0, 0].numpy(), f.region, atol=1e-4)


def bags_of(run, manifest, level):
    from hipt_nb.features import load_bags
    return load_bags(run, manifest, 'hipt-mini', level)


def answers(table):
    return table.set_index('slide_id').sort_index().filter(regex='prob|risk')


@pytest.mark.parametrize('name', slide_models)
def test_slide_model(run, manifest, name):
    "Every fold predicts what it predicted"
    from hipt_nb.finetune import load_slide_model
    from hipt_nb.trained import Trained
    level, folder = slide_models[name], run.root/'models'/'slide'/name
    if name.endswith('mean'): pytest.importorskip('torchmil')
    bags = bags_of(run, manifest, level)
    assert run.trained(name).level == level
    kept = pd.read_csv(folder/'predictions.csv')
    assert sorted(kept.slide_id) == slide_ids
    for k in (0, 1):
        model, config = load_slide_model(folder/f'fold{k}')
        assert config['fold'] == k and not model.training
        then = answers(kept[kept.fold == k])
        assert set(then.index) == set(config['split']['test'])
        now = answers(Trained(folder/f'fold{k}').predict([b for b in bags if b.slide_id in then.index]))
        np.testing.assert_allclose(now[then.columns], then, atol=1e-5)


def test_evaluation_tables(run):
    "A report of the old run shows its scores"
    from hipt_nb.cohort import read_manifest
    from hipt_nb.report import write_report
    page = write_report(run, read_manifest(run.root/'cohort.csv')).read_text('utf-8')
    for model in pd.read_csv(run.root/'evaluation.csv').model.unique(): assert model in page, model
    assert '0.62' in page and 'c-index' in page


# A run that was begun then goes on

def go_on(folder, *commands):
    "Commands of `hipt`, in the run folder, by a process of its own that knows the tiny pyramid"
    code = ('import sys; sys.path.insert(0, sys.argv[1]); import make_run_v0 as v0; v0.small_sizes()\n'
            f'for c in {list(commands)!r}: v0.command(*c)')
    res = subprocess.run([sys.executable, '-c', code, golden], cwd=folder, capture_output=True, text=True, timeout=600)
    assert res.returncode == 0, res.stderr[-3000:]
    return res.stdout


def times(folder):
    return {p.relative_to(folder): p.stat().st_mtime_ns for p in folder.rglob('*')
            if p.suffix in ('.h5', '.safetensors') or p.name == 'predictions.csv' and p.parent.name.startswith('fold')}


def held_out():
    "What the old version predicted for each slide with the network that did not see it, as `predict` does now"
    return pd.read_csv(old/'models'/'slide'/'hipt-mini'/'predictions.csv')


# what models are called in tables: then, and now
names = {'HIPT on hipt-mini': 'HIPT, hipt-mini features', 'HIPT on hipt-mini-cox': 'HIPT, hipt-mini features, cox',
         'HIPT on hipt-mini-mean': 'mean of regions, hipt-mini features',
         'HIPT on hipt-mini-tuned-level2': 'HIPT, hipt-mini features, tuned level 2',
         'mean of patches, hipt-mini': 'mean of patches, hipt-mini'}  # one, for all models above the same patches


def same_random_weights(run):
    "On another processor they may differ in their last bits"
    from hipt_nb.core import read_json
    from hipt_nb.hipt import create_hipt
    v0.small_sizes()
    begun = read_json(run.root/'models'/'hipt-mini-level1'/'config.json')
    return create_hipt(v0.PRESET).weights_sha256['level1'] == begun['start']


def test_the_same_commands_find_everything_done(run):
    "Nothing is refused for what an old record does not say, and nothing is made again"
    before = times(run.root)
    pretrain = [v0.PRETRAIN] if same_random_weights(run) else []   # they are compared
    train = [v0.TRAIN] if find_spec('torchmil') else []
    out = go_on(run.root, v0.TILE, *pretrain, v0.EMBED, *train, v0.ATTEND, v0.PREDICT, v0.EVALUATE)
    assert times(run.root) == before
    assert 'tile: 8 skipped' in out and 'embed hipt-mini: 8 skipped' in out and 'attend hipt-mini: 1 skipped' in out
    now = pd.read_csv(run.root/'predictions'/'hipt-mini.csv')
    np.testing.assert_allclose(answers(now), answers(held_out()), atol=1e-5)
    assert not now.seen_in_training.any() and (now.temperature == 1).all()
    then, now = (pd.read_csv(d/'evaluation.csv') for d in (old, run.root))
    then = then[then.model.isin(names)].reset_index(drop=True)
    assert [names[m] for m in then.model] == list(now.model)
    np.testing.assert_allclose(now.value, then.value, atol=1e-4)


def test_a_new_slide_joins_an_old_run(run):
    "A slide that was added is tiled, embedded and predicted beside the old ones"
    for path in (run.root/'tiles'/'P08-1.h5', run.root/'features'/'hipt-mini'/'P08-1.h5'): path.unlink()
    out = go_on(run.root, v0.TILE, v0.EMBED, v0.PREDICT)
    assert 'tile: 1 done, 7 skipped' in out and 'embed hipt-mini: 1 done, 7 skipped' in out
    now = answers(pd.read_csv(run.root/'predictions'/'hipt-mini.csv'))
    np.testing.assert_allclose(now, answers(held_out()), atol=1e-3)


def test_pretraining_that_was_stopped_halfway_goes_on(run):
    "From its checkpoint, to the weights to which that version took it"
    import torch
    from safetensors.torch import load_file
    checkpoint = run.root/'models'/'hipt-half-level1'/'checkpoint.pt'
    state = torch.load(checkpoint, weights_only=True)
    assert state['it'] == v0.STOPPED
    go_on(run.root, v0.HALFWAY)
    assert torch.load(checkpoint, weights_only=True)['it'] == v0.STEPS
    now, then = load_file(checkpoint.parent/'model.safetensors'), load_file(old/'expected-half-level1.safetensors')
    assert now.keys() == then.keys()
    for k in then: torch.testing.assert_close(now[k], then[k], atol=1e-3, rtol=1e-3)
    log, kept = (pd.read_csv(d/'models'/'hipt-half-level1'/'log.csv') for d in (run.root, old))
    assert list(log.step) == list(range(v0.STEPS))
    assert log.loss[:v0.STOPPED].equals(kept.loss)     # kept, not computed again
