"""A pretraining that is killed at any moment and started again ends with the same bytes as one that was not."""
import functools, os, signal, subprocess, sys, time
from pathlib import Path
import numpy as np, pytest

SCRIPT = """
import sys, time, torch
from dataclasses import replace
from fastai.callback.core import Callback
from hipt_nb.vit import grid_vit
from hipt_nb.dino import RECIPES
from hipt_nb.pretrain import pretrain_grid
class Slow(Callback):
    def after_batch(self): time.sleep(float(sys.argv[3]))
torch.set_num_threads(1); torch.manual_seed(0)
recipe = replace(RECIPES['small'], out_dim=64, hidden_dim=32, bottleneck_dim=16, drop_path=.1)
pretrain_grid([sys.argv[1]], grid_vit(12, 24, 2, 3, grid=4), sys.argv[2], recipe=recipe, samples=40*8, batch_size=8,
              device='cpu', every=5, precision=sys.argv[4], cbs=[Slow()])
"""
FILES = 'model.safetensors', 'log.csv', 'config.json'

@pytest.fixture(scope='module')
def features(tmp_path_factory):
    from hipt_nb.features import Features, write_features
    r,path = np.random.default_rng(0),tmp_path_factory.mktemp('features')/'a.h5'
    attrs = dict(level1_sha256='a', level2_sha256='', mean=[.5]*3, std=[.5]*3, patch_size=256, min_tissue=.1)
    write_features(path, Features('a', r.normal(size=(30,4,4,12)).astype(np.float16), None, np.zeros((30,2),np.int64),
                                  (r.random((30,4,4))>.3).astype(np.float16), attrs))
    return path

def start(features, out, pause=0., precision='float32'):
    env = {**os.environ, 'OMP_NUM_THREADS':'1', 'PYTHONPATH':str(Path(__file__).parents[1])}
    return subprocess.Popen([sys.executable, '-W', 'ignore', '-c', SCRIPT, str(features), str(out), str(pause),
                             precision], env=env, stderr=subprocess.PIPE, text=True)

@pytest.fixture(scope='module')
def whole(features, tmp_path_factory):
    "What a training that nobody disturbed wrote; made once for each precision that is asked for"
    out = tmp_path_factory.mktemp('whole')
    return functools.cache(lambda precision: finish(features, out/precision, precision))

def finish(features, out, precision):
    p = start(features, out, precision=precision); err = p.communicate(timeout=200)[1]
    assert p.returncode==0, err
    return {f:(out/f).read_bytes() for f in FILES}

@pytest.mark.parametrize('how,precision', [
    (signal.SIGTERM, 'float32'), (signal.SIGKILL, 'float16'),
    *(pytest.param(how, 'float32', marks=pytest.mark.faults) for how in (signal.SIGKILL, signal.SIGINT))])
def test_killed_and_resumed(features, whole, tmp_path, how, precision):
    import torch
    p,deadline = start(features, tmp_path, .05, precision),time.time()+120
    while not (tmp_path/'checkpoint.pt').exists() and time.time()<deadline: time.sleep(.02)
    time.sleep(.3)
    p.send_signal(how); err = p.communicate(timeout=120)[1]
    assert p.returncode!=0 and not (tmp_path/'model.safetensors').exists()
    if how!=signal.SIGKILL: assert 'the same command goes on from there' in err
    scaler = torch.load(tmp_path/'checkpoint.pt', weights_only=True)['scaler']
    # the gradients' scale has moved, and is kept
    assert (scaler['scale'], scaler['_growth_tracker'])!=(2.**16, 0) if precision=='float16' else not scaler
    assert finish(features, tmp_path, precision)==whole(precision)
    assert not list(tmp_path.glob('.tmp*')) or how==signal.SIGKILL

def test_non_finite_weights_are_not_saved(features, tmp_path):
    "The last step before a checkpoint goes wrong: its loss was still finite"
    import torch
    from dataclasses import replace
    from fastai.callback.core import Callback
    from hipt_nb.core import HIPTError
    from hipt_nb.dino import RECIPES
    from hipt_nb.pretrain import pretrain_grid
    from hipt_nb.vit import grid_vit
    class Broken(Callback):
        def after_batch(self):
            if self.learn.it==10: self.model.backbone.cls_token.data.fill_(float('nan'))
    recipe = replace(RECIPES['small'], out_dim=64, hidden_dim=32, bottleneck_dim=16)
    with pytest.raises(HIPTError, match='weights are not finite after step 9: the last checkpoint is kept'):
        pretrain_grid([features], grid_vit(12, 24, 2, 3, grid=4), tmp_path, recipe=recipe, samples=20*8, batch_size=8,
                      device='cpu', every=5, cbs=[Broken()])
    assert torch.load(tmp_path/'checkpoint.pt', weights_only=True)['it']==5
    assert not (tmp_path/'model.safetensors').exists()

OLD = Path(__file__).parent/'golden'/'pretraining'

@pytest.fixture
def begun(tmp_path):
    "A training of ten steps that version 0.0.1 stopped after the fifth, and the call that continues it"
    import shutil
    from dataclasses import replace
    from safetensors.torch import load_file
    from hipt_nb.dino import FORMER_RECIPES
    from hipt_nb.pretrain import pretrain_grid
    from hipt_nb.vit import grid_vit
    shutil.copytree(OLD/'training', tmp_path/'training')
    vit = grid_vit(4, 6, 1, 2, grid=4)
    vit.load_state_dict(load_file(OLD/'start.safetensors'))
    recipe = replace(FORMER_RECIPES['small'](), out_dim=8, hidden_dim=8, bottleneck_dim=4, drop_path=.1)
    def go_on(samples=10*4, **numbers):
        return pretrain_grid([OLD/'features.h5'], vit, tmp_path/'training', recipe=replace(recipe, **numbers),
                             samples=samples, batch_size=4, device='cpu', every=4)
    return tmp_path/'training', go_on

def rewrite(folder, change):
    "Make a record as another version would have written it, and the checkpoint's hash with it"
    import torch
    from hipt_nb.core import params_hash, read_json, write_json
    record = read_json(folder/'config.json')
    change(record)
    write_json(folder/'config.json', record)
    state = torch.load(folder/'checkpoint.pt', weights_only=True)
    torch.save(state | dict(params=params_hash(record)), folder/'checkpoint.pt')
    return (folder/'config.json').read_bytes()

def ends_as_it_would_have(folder):
    import torch
    from safetensors.torch import load_file
    ours, theirs = load_file(folder/'model.safetensors'), load_file(OLD/'whole.safetensors')
    assert set(ours)==set(theirs)
    for k in ours: torch.testing.assert_close(ours[k], theirs[k], atol=1e-5, rtol=1e-4)

def test_a_training_of_the_version_before_goes_on(begun):
    folder, go_on = begun
    config = (folder/'config.json').read_bytes()
    assert len(go_on())==10 and (folder/'config.json').read_bytes()==config
    ends_as_it_would_have(folder)
    assert len(go_on())==10                                         # finished, and known to be

def test_a_training_with_an_older_record_goes_on(begun):
    "Older records lack the second KoLeo weight, the precision and more; the checkpoint's hash is of such a record"
    folder, go_on = begun
    def older(r):
        for d,k in (r['recipe'], 'koleo_grids'), (r, 'precision'), (r, 'accumulate'), (r['vit'], 'antialias'): del d[k]
    config = rewrite(folder, older)
    assert len(go_on())==10 and (folder/'config.json').read_bytes()==config
    ends_as_it_would_have(folder)

def test_what_an_older_record_means_is_compared(begun):
    "One KoLeo weight was for grids too: another training than with today's default, and the message names what to set"
    from hipt_nb.core import HIPTError
    folder, go_on = begun
    def one_weight(r):
        del r['recipe']['koleo_grids']
        r['recipe']['koleo'] = .1
    rewrite(folder, one_weight)
    with pytest.raises(HIPTError, match=r'recipe.koleo_grids: 0.1 before, 0.0 now'): go_on(koleo=.1)
    go_on(koleo=.1, koleo_grids=.1)
    with pytest.raises(HIPTError, match=r'\(samples: 40 before, 44 now\)'): go_on(11*4, koleo=.1, koleo_grids=.1)

def test_every_key_of_a_record_was_there_or_has_a_former_default():
    "Whoever adds a field to a record, a recipe, its views or a network writes down what versions did that lacked it"
    import json
    from dataclasses import asdict
    from hipt_nb.dino import Recipe
    from hipt_nb.encoders import vit_config
    from hipt_nb.pretrain import FORMER_DEFAULTS, flat
    from hipt_nb.vit import grid_vit
    now = flat(dict(recipe=asdict(Recipe()), vit=vit_config(grid_vit(4, 6, 1, 2))))
    then = flat(json.loads((OLD/'training'/'config.json').read_text()))
    assert set(now) - set(then) <= set(FORMER_DEFAULTS)
    assert {k for k in then if k.split('.')[0] in ('recipe', 'vit')} <= set(now)

def test_golden_numbers_are_there():
    "Without them the comparison with the published DINO in the `dino` notebook would be skipped"
    import json
    assert set(json.loads((Path(__file__).parent/'golden'/'dino.json').read_text()))=={'loss','schedules','head'}

def hipt(*args, ranks=1):
    command = [sys.executable, '-W', 'ignore',
               *(['-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', str(ranks)] if ranks>1 else []),
               '-m', 'hipt_nb.cli']
    return subprocess.run([*command, *map(str, args)], capture_output=True, text=True, timeout=300,
                          env={**os.environ, 'OMP_NUM_THREADS':'1', 'PYTHONPATH':str(Path(__file__).parents[1])})

@pytest.fixture(scope='module')
def cohort(tmp_path_factory):
    "Four tiled phantoms of four patients, two of each label: manifest, tiles"
    from hipt_nb.cohort import read_manifest
    from hipt_nb.run import Run
    from hipt_nb.phantom_cohort import make_cohort
    from hipt_nb.tiling import tile_cohort
    d = tmp_path_factory.mktemp('cohort')
    manifest = make_cohort(d/'slides', n_slides=4, n_patients=4, size=1024, seed=0, workers=1)
    tile_cohort(Run(d/'run'), read_manifest(manifest), region_size=512, blur='none')
    return manifest, d/'run'/'tiles'

@pytest.fixture
def pretrain(cohort, tmp_path):
    "The command on a run folder that holds tiles and nothing else"
    import shutil
    shutil.copytree(cohort[1], tmp_path/'run'/'tiles')
    def run(*args, manifest=cohort[0], ok=True, **kw):
        r = hipt('pretrain', manifest, '--out', tmp_path/'run', '--recipe', 'small', '--samples1', 8, '--samples2', 4,
                 '--batch-size', 4, *args, **kw)
        assert (r.returncode==0)==ok, r.stderr
        return r
    return run

def test_the_command_monitors_where_there_are_labels(pretrain, tmp_path):
    from hipt_nb.monitor import read_log
    pretrain('--preset', 'hipt-tiny')
    log1, log2 = (read_log(tmp_path/'run'/'models'/f'hipt-tiny-level{k}'/'log.csv') for k in (1, 2))
    assert len(log1)==2 and len(log2)==1
    for log in (log1, log2): assert log.knn_accuracy.between(0, 1).all()
    sums = [(tmp_path/'run'/'models'/f'hipt-tiny-level{k}'/'model.safetensors').read_bytes() for k in (1, 2)]
    pretrain('--preset', 'hipt-tiny', '--level', 2)
    # nothing to do
    assert sums==[(tmp_path/'run'/'models'/f'hipt-tiny-level{k}'/'model.safetensors').read_bytes() for k in (1, 2)]

def test_samples_of_the_monitor(cohort):
    from hipt_nb.cohort import read_manifest
    from hipt_nb.samples import PatchSource
    from hipt_nb.pretrain import labelled_samples
    rows = list(read_manifest(cohort[0]).itertuples())
    source, labelled = PatchSource([(r.path, cohort[1]/f'{r.slide_id}.h5')
                                    for r in rows]), {r.slide_id: (r.label, r.patient) for r in rows}
    (x,), labels, who = labelled_samples(source, labelled, n=12)
    assert len(x)==len(labels)==len(who)==12 and all((who==r.patient).sum()==3 for r in rows)
    assert {(l, w) for l,w in zip(labels, who)}=={(r.label, r.patient) for r in rows}
    assert labelled_samples(source, {k: ('one', p) for k,(_,p) in labelled.items()}) is None
    assert labelled_samples(source, {}) is None
    # a slide without a label is left out
    assert len(labelled_samples(source, {**labelled, rows[0].slide_id: (float('nan'), 'x')}, n=12)[1])==12

@pytest.mark.faults
def test_three_levels_by_the_command(pretrain, tmp_path):
    pretrain('--preset', 'hipt-tiny-3', '--level', 1)
    assert sorted(p.name for p in (tmp_path/'run'/'models').iterdir())==['hipt-tiny-3-level1']
    pretrain('--preset', 'hipt-tiny-3', '--level', 2); pretrain('--preset', 'hipt-tiny-3', '--level', 3)
    assert (tmp_path/'run'/'models'/'hipt-tiny-3'/'config.json').exists()

@pytest.mark.faults
def test_torchrun_starts_the_command(pretrain, tmp_path):
    from hipt_nb.monitor import read_log
    r = pretrain('--preset', 'hipt-tiny', ranks=2)
    assert r.stdout.count('model in')==1
    assert read_log(tmp_path/'run'/'models'/'hipt-tiny-level1'/'log.csv').samples.tolist()==[4, 8]

def one_line(r, text):
    lines = [l for l in r.stderr.replace('\r', '\n').splitlines() if l.startswith('hipt: ')]
    assert r.returncode==1 and len(lines)==1 and text in lines[0] and 'Exception' not in r.stderr, r.stderr

@pytest.mark.faults
def test_what_goes_wrong_is_one_line(cohort, pretrain, tmp_path):
    "Weights that are not finite, a batch that is too large, features of another model or with another normalisation"
    import shutil
    from hipt_nb.features import read_features, write_features
    from hipt_nb.hipt import create_hipt
    from safetensors.torch import save_file
    run, tiny = tmp_path/'run', ('--preset', 'hipt-tiny')
    one_line(pretrain(*tiny, '--batch-size', 5000, ok=False), 'a batch of 5000 is larger than the data')
    state = {k: v.clone() for k,v in create_hipt('hipt-tiny').level1.state_dict().items()}
    state['cls_token'].fill_(float('nan')); save_file(state, tmp_path/'nan.safetensors')
    one_line(pretrain(*tiny, '--start', tmp_path/'nan.safetensors', '--level', 1, ok=False),
             'the loss is nan at step 0: the last checkpoint is kept')
    shutil.rmtree(run/'models')
    pretrain(*tiny)
    files = list((run/'features'/'hipt-tiny').glob('*.h5'))
    def again(**attrs):
        shutil.rmtree(run/'models'/'hipt-tiny-level2', ignore_errors=True)
        for p in files: f = read_features(p); f.made_by.update(attrs); write_features(p, f)
        return pretrain(*tiny, '--level', 2, ok=False)
    one_line(again(mean=[.4]*3), 'another normalisation')
    one_line(again(mean=[.5]*3, level1_sha256='0'*64), 'made by another level 1')

@pytest.mark.faults
def test_a_slide_cut_off_costs_its_patches_only(cohort, pretrain, tmp_path):
    import shutil
    shutil.copytree(cohort[0].parent, tmp_path/'slides')
    first = sorted((tmp_path/'slides').glob('*.tif'))[0]
    first.write_bytes(first.read_bytes()[:3000])
    r = pretrain('--preset', 'hipt-tiny', '--level', 1, manifest=tmp_path/'slides'/cohort[0].name)
    assert r.stderr.count(f"slide '{first.stem}' cannot be read in places")==1

def test_no_tissue_is_one_line(tmp_path):
    import tifffile
    tifffile.imwrite(tmp_path/'white.tif', np.full((512,512,3), 245, np.uint8), tile=(256,256), photometric='rgb')
    tiled = hipt('tile', tmp_path/'white.tif', '--out', tmp_path/'run', '--region-size', 512, '--slide-mpp', .5)
    assert tiled.returncode==0
    one_line(hipt('pretrain', tmp_path/'white.tif', '--out', tmp_path/'run', '--preset', 'hipt-tiny'),
             'no patch of any slide holds enough tissue')

def test_losses_equal_lightlys():
    "DINO, iBOT, KoLeo and Sinkhorn against the numbers of an independent package"
    import json, sys, torch
    from hipt_nb.dino import DINOLoss, IBOTLoss, koleo_loss, sinkhorn
    golden = Path(__file__).parent/'golden'
    sys.path.insert(0, str(golden))
    from dino import formula
    g = json.loads((golden/'lightly.json').read_text())
    def same(loss, x, want):
        grad, = torch.autograd.grad(loss, x)
        torch.testing.assert_close(loss, torch.tensor(want['loss']), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(grad.norm(), torch.tensor(want['grad_norm']), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(grad.flatten()[:5], torch.tensor(want['grad']), atol=1e-5, rtol=1e-4)
    d = g['dino']; loss = DINOLoss(d['out_dim'], d['ncrops'], teacher_temp=d['teacher_temp'])
    for step,want in enumerate(d['steps']):
        s, t = formula(d['ncrops']*d['batch'], d['out_dim'],
                       k=.9+step).requires_grad_(), formula(2*d['batch'], d['out_dim'], k=.2+step)
        same(loss(s, t), s, want)
        torch.testing.assert_close(loss.center.flatten()[:5], torch.tensor(want['center']), atol=1e-6, rtol=1e-5)
    d = g['ibot']; loss = IBOTLoss(d['out_dim'], teacher_temp=d['teacher_temp'])
    for step,want in enumerate(d['steps']):
        hidden = formula(3, 20, k=.5+step).view(3, 4, 5)>0; n = int(hidden.sum())
        s, t = formula(n, d['out_dim'], k=.9+step).requires_grad_(), formula(n, d['out_dim'], k=.2+step)
        same(loss(s, t, hidden), s, want)
        torch.testing.assert_close(loss.center.flatten()[:5], torch.tensor(want['center']), atol=1e-6, rtol=1e-5)
    x = formula(*g['koleo']['shape'], k=.37).requires_grad_()
    same(koleo_loss(x), x, g['koleo'])
    torch.testing.assert_close(sinkhorn(formula(*g['sinkhorn']['shape'], k=.61)/g['sinkhorn']['temperature']),
                               torch.tensor(g['sinkhorn']['answer']), atol=1e-5, rtol=1e-4)
