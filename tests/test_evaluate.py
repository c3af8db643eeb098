"Figures against other programs, intervals against what they promise, and bad tables found before anything is trained"
import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from hipt_nb.calibration import CALIBRATION_ERROR
from hipt_nb.comparison import METRICS, compare, fold_score
from hipt_nb.core import HIPTError, logged
from hipt_nb.metrics import prediction_table
from hipt_nb.run import Run
from hipt_nb.splits import make_folds, write_splits
from hipt_nb.survival import auc_at, c_index

golden = Path(__file__).parent/'golden'


def survival_make():
    spec = importlib.util.spec_from_file_location('survival_make', golden/'survival_make.py')
    mod = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(mod)
    return mod


def test_survival_figures_are_those_of_scikit_survival():
    make = survival_make()
    for case in json.loads((golden/'survival.json').read_text()):
        time, event, risk = make.study(case['seed'], case['n'], case['ties'])
        for w in (None, np.ones((1, case['n']))):    # through torchsurv, and by counting pairs
            assert np.allclose(c_index(time, event, risk, w), case['c_index'], atol=1e-6)
            assert np.allclose([auc_at(time, event, risk, t, w) for t in make.times],
                               np.reshape(case['auc'], (-1,) if w is None else (-1, 1)), atol=1e-6)


# Intervals

def study(seed, true, n_patients, n_slides, folds, alike=.7):
    "Scores with a known AUC of slides of which some share a patient; folds by patient, classes in balance"
    rng = np.random.default_rng(seed)
    who = np.r_[np.arange(n_patients), rng.permutation(n_patients)[:n_slides-n_patients]]
    y, fold = who % 2, rng.permutation(n_patients//2)[who//2] % folds
    z = (y*np.sqrt(2)*norm.ppf(true) + np.sqrt(alike)*rng.standard_normal(n_patients)[who]
         + np.sqrt(1-alike)*rng.standard_normal(n_slides))
    q = 1/(1+np.exp(-z+z.mean()))
    return prediction_table(np.arange(n_slides), who, y, np.c_[1-q, q], ['calm', 'mixed'], fold)


def tails(studies, true, n_patients, n_slides, folds=5, seed=0):
    "The shares of studies with the true AUC below and above the interval"
    est = [fold_score(study(seed+s, true, n_patients, n_slides, folds)) for s in range(studies)]
    return np.mean([true < e.low for e in est]), np.mean([true > e.high for e in est])


@pytest.mark.parametrize('true, patients, slides', [(.5, 18, 24), (.8, 18, 24), (.95, 18, 24), (.8, 60, 80)])
def test_intervals_hold_the_truth(true, patients, slides):
    assert max(tails(80, true, patients, slides)) <= .08


@pytest.mark.faults
@pytest.mark.parametrize('true', [.5, .65, .8, .95])
@pytest.mark.parametrize('patients, slides', [(18, 24), (60, 80), (200, 260)])
def test_intervals_hold_the_truth_in_many_studies(true, patients, slides):
    assert max(tails(600, true, patients, slides, seed=10_000)) <= .045+.02    # three standard errors


def test_differences_hold_the_truth():
    "Two models that differ in nothing but chance: zero is in the interval"
    est = []
    for s in range(60):
        a = study(s, .8, 40, 50, 4)
        rng = np.random.default_rng([s, 2])
        models = []
        for noise in rng.standard_normal((2, 50))*.5:
            z = np.log(a.prob_mixed/a.prob_calm)+noise
            models.append(a.assign(prob_mixed=1/(1+np.exp(-z)), prob_calm=1/(1+np.exp(z))))
        est.append(compare(*models))
    assert .86 <= np.mean([e.low <= 0 <= e.high for e in est]) <= 1


def three_classes(seed, n, skill):
    "Predictions for three classes, one of them rare, in three folds"
    rng = np.random.default_rng(seed)
    y = np.r_[np.arange(3), np.arange(3), rng.choice(3, n-6, p=[.6, .3, .1])]
    p = rng.dirichlet(np.ones(3), n)+skill*np.eye(3)[y]
    ids = np.arange(n).astype(str)
    return prediction_table(ids, ids, y, p/p.sum(1, keepdims=True), ['a', 'b', 'c'], np.arange(n) % 3)


@pytest.mark.parametrize('n', [12, 24, 60])
@pytest.mark.parametrize('skill', [0, .3, 3])
def test_an_estimate_lies_inside_its_interval(n, skill):
    "Average precision of three classes used to be .364 with an interval of .372 to .743"
    for seed in range(8):
        for name in METRICS:
            e = fold_score(three_classes(seed, n, skill), name)
            assert 0 <= e.low <= e.value <= e.high <= 1, (name, e)
            d = compare(three_classes(seed, n, skill), three_classes(seed, n, skill).assign(pred='a'), name)
            assert d.low <= d.value <= d.high, (name, d)


def test_a_worse_result_is_not_more_certain_than_a_perfect_one():
    "Of 18 patients in three folds: with one more pair in the wrong order the lower end never rises"
    y, fold = np.arange(18) % 2, np.arange(18)//2 % 3
    ids = np.arange(18).astype(str)
    ends = []
    for wrong in range(9):
        p = y+.01*np.arange(18)
        p[:2*wrong:2] += 1.05    # controls among the cases
        q = p/p.max()
        ends.append(fold_score(prediction_table(ids, ids, y, np.c_[1-q, q], ['calm', 'mixed'], fold)))
    assert ends[0].value == 1 and max(e.low for e in ends) == ends[0].low
    assert .55 < ends[0].low < .95


def test_no_interval_where_none_can_be_right():
    small = three_classes(0, 9, .3)
    assert np.isnan(fold_score(small).low) and fold_score(small).note == 'no interval below 10 patients'
    e = fold_score(three_classes(0, 60, .3), CALIBRATION_ERROR)
    assert np.isnan(e.low) and 'biased' in e.note and str(e).endswith('(no interval)')


# Tables that are not fit

@pytest.fixture(scope='module')
def run(tmp_path_factory):
    "A run with features of 24 slides, made without any model"
    from hipt_nb.features import Features, write_features
    rng, run = np.random.default_rng(0), Run(tmp_path_factory.mktemp('run'))
    for i in range(24):
        x = rng.standard_normal((2, 2, 2, 6)) + 2*(i % 2)*(np.arange(6) < 2)
        attrs = dict(encoder_name='tiny', level1_sha256='a', level2_sha256='b', mean=[.5]*3, std=[.5]*3, min_tissue=.1)
        write_features(run.features('tiny', f's{i:02}'),
                       Features(f's{i:02}', x.astype(np.float16), x.mean((1, 2)).astype(np.float32),
                                np.zeros((2, 2), int), np.ones((2, 2, 2), np.float16), attrs))
    return run


def manifest(path, **columns):
    m = pd.DataFrame(dict(path=[f's{i:02}.svs' for i in range(24)], patient=[f'p{i%16:02}' for i in range(24)],
                          label=['xy'[i % 2] for i in range(24)]))
    m.assign(**columns).to_csv(path/'m.csv', index=False)
    return [path/'m.csv']


good = ['xy'[i % 2] for i in range(24)]


@pytest.mark.parametrize('columns, says', [
    (dict(label=['x']*24), ['one class only']),
    (dict(label=['y', *good[1:]]), ["patient 'p00' has labels 'x', 'y' (slides s00, s16)"]),
    (dict(label=['X', *good[1:16], 'X', *good[17:]]), ["differ only in spelling (slides s00, s16)"]),
    (dict(label=['infiltrating' if l == 'x' else 'glandular' for l in good[:8]]
          +['infiltratin', *['infiltrating' if l == 'x' else 'glandular' for l in good[9:]]]),
          ["class 'infiltratin' has 1 patient", 'slide s08', "misspelt for 'infiltrating'"]),
    (dict(label=['z' if i in (0, 2, 16, 18) else l for i, l in enumerate(good)], split=['train']*24),
     ['no test slides']),
], ids=['one class', 'two labels', 'spelling', 'typing error', 'split'])
def test_bad_labels_are_named_before_training(run, tmp_path, columns, says):
    from hipt_nb.cli import knn, train
    for verb in (knn, train):
        with pytest.raises(HIPTError) as e: verb(manifest(tmp_path, **columns), run.root, folds=3)
        for text in says: assert text in str(e.value)
        assert '\n' not in str(e.value)
    assert not (run.root/'models'/'slide').exists()


def test_slides_without_a_label_are_left_out_by_name(run, tmp_path, monkeypatch, capsys):
    from hipt_nb.cli import knn
    from hipt_nb.core import logger
    said = []
    monkeypatch.setattr(logger, 'warning', said.append)
    knn(manifest(tmp_path, label=[None, *good[1:20], None, None, *good[22:]]), run.root, folds=3)
    assert 'note: 3 of 24 slides have no label and are left out: s00, s20, s21' in said
    assert ', 21 slides of 16 patients' in capsys.readouterr().out


def test_all_that_is_wrong_is_said_at_once(run, tmp_path):
    from hipt_nb.cli import knn
    with pytest.raises(HIPTError) as e: knn(manifest(tmp_path, label=[None, 'X ', 'Y', *good[3:]]), run.root, folds=3)
    for text in ("'X', 'x' differ only", "'Y', 'y' differ only", "patient 'p01'",
                 "patient 'p02'"):
        assert text in str(e.value).replace("'x', 'X'", "'X', 'x'").replace("'y', 'Y'", "'Y', 'y'")


def test_survival_times_are_named_before_folds(tmp_path):
    m = pd.DataFrame(dict(slide_id=[f's{i}' for i in range(20)], patient=[f'p{i}' for i in range(20)],
                          time=[float('nan'), -3, 0, float('inf')]+[5.]*16, event=[1, 0, 1, 0, 2]+[1]*15))
    with pytest.raises(HIPTError) as e: make_folds(m, 3, survival=True)
    for text in ('no time for slide s0', 'not a number above 0 for slide s1, s2, s3', 'neither 0 nor 1 for slide s4'):
        assert text in str(e.value)


def test_leaky_split_files(run, tmp_path, capsys):
    "Split files that share patients are refused, by name; allowed, they are reported with their number"
    from hipt_nb.cli import knn
    m, ids = manifest(tmp_path), [f's{i:02}' for i in range(24)]
    write_splits([dict(train=[s for i, s in enumerate(ids) if i % 3 != k], val=[],
                       test=[s for i, s in enumerate(ids) if i % 3 == k]) for k in range(3)], tmp_path/'splits')
    with pytest.raises(HIPTError) as e: knn(m, run.root, splits=tmp_path/'splits')
    assert '16 of 24 test slides (66.7%)' in str(e.value) and 's00 (patient p00)' in str(e.value)
    knn(m, run.root, splits=tmp_path/'splits', allow_leakage=True)
    out = capsys.readouterr().out
    assert 'folds: 16 of 24 test slides (66.7%) share a patient' in out and 'AUC' in out
    knn(manifest(tmp_path, site=[f'c{i%8//2}' for i in range(24)]), run.root, folds=3, by_site=True, repeats=2,
        metric='cosine', weights='distance', curve=True)
    assert {'curve-tiny.csv', 'curve-tiny.png'} <= {p.name for p in (run.root/'evaluation').iterdir()}


def test_a_slide_without_tissue_is_left_out(run, tmp_path):
    "Tiled, and nothing found on it: it has no features, and every verb says so and goes on with the others"
    from hipt_nb.cli import evaluate, knn, predict, train
    from hipt_nb.tiling import Tiles, write_tiles
    m = pd.DataFrame(dict(path=[f's{i:02}.svs' for i in range(24)]+['glass.svs'],
                          patient=[f'p{i%16:02}' for i in range(24)]+['p00'],
                          label=['xy'[i % 2] for i in range(24)]+['x']))
    m.to_csv(tmp_path/'m.csv', index=False)
    none = np.zeros((0, 2, 2), np.float16)
    write_tiles(run.tiles('glass'), Tiles('glass', np.zeros((0, 2), int), none, none, none, .5, .5, 512, 256))
    cohort = [tmp_path/'m.csv']
    for verb, kw in ((knn, dict(folds=3)), (train, dict(folds=3, epochs=2, device='cpu')),
                     (evaluate, dict(resamples=20, sharpness=True)), (predict, dict(device='cpu'))):
        with logged() as said: verb(cohort, run.root, **kw)
        assert sum('left out, because they have no regions: glass' in line for line in said) == 1, (verb, said)
        if verb is evaluate: assert any('--resamples has no effect' in line for line in said)
    assert len(pd.read_csv(run.root/'predictions.csv')) == 24
    minima = pd.read_csv(run.root/'evaluation'/'minima.csv')
    assert minima.fold.tolist() == ['0', '1', '2', 'mean'] and (minima.worst >= minima.random).all()
    assert minima.loss_gap_low.isna().all()    # fewer than ten validation patients: no interval
    m[24:].to_csv(tmp_path/'m.csv', index=False)
    with pytest.raises(HIPTError, match='no slide of this cohort has a region with tissue'): predict(cohort, run.root)


@pytest.mark.parametrize('tokens, bags', [('patch', 'patch'), ('patch', 'grid'), ('region', 'region')])
def test_features_that_are_not_finite_are_left_out(run, tmp_path, tokens, bags):
    "Named in one line where they are read, and in the folder of the model; the others go on"
    import h5py

    from hipt_nb.cli import knn, train
    path, cohort = run.features('tiny', 's03'), manifest(tmp_path)
    whole = path.read_bytes()
    with h5py.File(path, 'r+') as f:
        x = f[tokens][:]
        x[0, ..., :2] = np.inf
        f[tokens][:] = x
    name = f'without-{bags}'
    try:
        for verb, kw in ((knn, {}), (train, dict(epochs=1, device='cpu', model='abmil', name=name))):
            if (verb, bags)==(train, 'grid'): continue   # no slide model reads them without a level 2
            with logged() as said: verb(cohort, run.root, folds=3, bags=bags, **kw)
            assert sum('1 of 24 slides are left out' in line and 's03' in line for line in said) == 1, (verb, said)
    finally: path.write_bytes(whole)
    if bags=='grid': return
    assert 's03' in (run.root/'models'/'slide'/name/'left_out.csv').read_text()
    shutil.rmtree(run.root/'models'/'slide'/name)   # the run is shared


# The columns and the cohort that a model was trained on

def test_the_column_that_was_trained_on_is_remembered(run, tmp_path):
    "`predict` and `evaluate` take the very manifest; each task has a folder, predictions and a figure of its own"
    from hipt_nb.cli import evaluate, predict, train
    m = manifest(tmp_path, grade=['high' if i % 16 % 3 else 'low' for i in range(24)])
    root, quick = run.root, dict(folds=3, epochs=2, device='cpu')
    train(m, root, name='tiny', **quick)
    train(m, root, label='grade', **quick)
    assert run.slide_models() == ['tiny', 'tiny-grade']
    predict(m, root, device='cpu')
    before = (root/'predictions'/'tiny.csv').read_bytes()
    only_grade = pd.read_csv(m[0]).drop(columns='label')
    only_grade.to_csv(tmp_path/'grade.csv', index=False)
    predict([tmp_path/'grade.csv'], root, trained='tiny-grade', device='cpu')
    table = pd.read_csv(root/'predictions'/'tiny-grade.csv')
    assert table.label.tolist() == only_grade.grade.tolist() and not table.seen_in_training.any()
    assert (root/'predictions'/'tiny.csv').read_bytes() == before
    evaluate([tmp_path/'grade.csv'], root, resamples=20)
    assert {'models-classes.png', 'models-classes-grade.png'} <= {p.name for p in (root/'evaluation').iterdir()}
    table = pd.read_csv(root/'evaluation.csv')
    assert {'HIPT, tiny features', 'HIPT, tiny features, grade'} < set(table.model)


def test_a_cohort_with_the_ids_of_the_training_slides(run, tmp_path):
    "Files tell its slides from the training slides: they are new, and nobody gets the training slides' predictions"
    import shutil

    from hipt_nb.cli import predict, train
    from hipt_nb.core import logged, quick_hash
    from hipt_nb.tiling import Tiles, write_tiles

    def cohort(name):
        "The same features and ids, of other files"
        there, folder = Run(tmp_path/name), tmp_path/f'{name}-slides'
        folder.mkdir()
        shutil.copytree(run.root/'features', there.root/'features')
        for i in range(24):
            path = folder/f's{i:02}.svs'
            path.write_bytes(f'{name} {i}'.encode())
            tiles = Tiles(path.stem, np.zeros((2, 2), int), *[np.ones((2, 2, 2), np.float16)]*3, .5, .5, 512, 256, {},
                          dict(slide=quick_hash(path)))
            write_tiles(there.tiles(path.stem), tiles)
        return there, manifest(folder)

    (a, slides_a), (b, slides_b) = cohort('a'), cohort('b')
    train(slides_a, a.root, folds=3, epochs=2, device='cpu')
    model = a.slide_model('tiny')
    with logged() as said: predict(slides_a, a.root, device='cpu')
    own = pd.read_csv(a.root/'predictions'/'tiny.csv')
    assert sorted(own.fold.unique()) == [0, 1, 2] and own.agreement.isna().all() and not own.seen_in_training.any()
    assert not any('other files' in line or 'id alone' in line for line in said)
    with logged() as said: predict(slides_b, b.root, trained=model, device='cpu')
    other = pd.read_csv(b.root/'predictions'/'tiny.csv')
    assert (other.fold == 'mean').all() and other.agreement.notna().all() and not other.seen_in_training.any()
    assert any('are other files, so they are predicted as new' in line for line in said)
    with pytest.raises(HIPTError, match='24 slides of the manifest are other files'):
        predict(slides_b, a.root, device='cpu')
