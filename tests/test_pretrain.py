"""A pretraining that is killed at any moment and started again ends with the same bytes as one that was not."""
import os, signal, subprocess, sys, time
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
pretrain_grid([sys.argv[1]], grid_vit(12, 24, 2, 3, grid=4), sys.argv[2], recipe=recipe, samples=40*8, batch_size=8, device='cpu', every=5, cbs=[Slow()])
"""
FILES = 'model.safetensors', 'log.csv', 'config.json'

@pytest.fixture(scope='module')
def features(tmp_path_factory):
    from hipt_nb.features import Features, write_features
    r,path = np.random.default_rng(0),tmp_path_factory.mktemp('features')/'a.h5'
    attrs = dict(level1_sha256='a', level2_sha256='', mean=[.5]*3, std=[.5]*3, patch_size=256, min_tissue=.1)
    write_features(path, Features('a', r.normal(size=(30,4,4,12)).astype(np.float16), None, np.zeros((30,2),np.int64), (r.random((30,4,4))>.3).astype(np.float16), attrs))
    return path

def start(features, out, pause=0.):
    env = {**os.environ, 'OMP_NUM_THREADS':'1', 'PYTHONPATH':str(Path(__file__).parents[1])}
    return subprocess.Popen([sys.executable, '-W', 'ignore', '-c', SCRIPT, str(features), str(out), str(pause)], env=env, stderr=subprocess.PIPE, text=True)

@pytest.fixture(scope='module')
def whole(features, tmp_path_factory):
    out = tmp_path_factory.mktemp('whole')
    p = start(features, out); err = p.communicate(timeout=200)[1]
    assert p.returncode==0, err
    return {f:(out/f).read_bytes() for f in FILES}

@pytest.mark.parametrize('how', [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_killed_and_resumed(features, whole, tmp_path, how):
    p,deadline = start(features, tmp_path, pause=.05),time.time()+120
    while not (tmp_path/'checkpoint.pt').exists() and time.time()<deadline: time.sleep(.02)
    time.sleep(.3)
    p.send_signal(how); err = p.communicate(timeout=120)[1]
    assert p.returncode!=0 and not (tmp_path/'model.safetensors').exists()
    if how!=signal.SIGKILL: assert 'the same command goes on from there' in err
    p = start(features, tmp_path); err = p.communicate(timeout=200)[1]
    assert p.returncode==0, err
    assert {f:(tmp_path/f).read_bytes() for f in FILES}==whole
    assert not list(tmp_path.glob('.tmp*')) or how==signal.SIGKILL

def test_golden_numbers_are_there():
    "Without them the comparison with the published DINO in the `dino` notebook would be skipped"
    import json
    assert set(json.loads((Path(__file__).parent/'golden'/'dino.json').read_text()))=={'loss','schedules','head'}
