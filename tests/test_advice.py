"What messages advise can be done, in runs whose features came from elsewhere, and notes are said where they matter"
import re, shlex
from dataclasses import replace
from pathlib import Path
import pandas as pd, pytest
from typer.testing import CliRunner
from hipt_nb.cli import app
from hipt_nb.core import HIPTError, logged
from hipt_nb.features import load_features, patch_array, read_features
from hipt_nb.foreign import toy_flat
from hipt_nb.layouts import toy_files
from hipt_nb.run import Run
from hipt_nb.tiling import read_tiles

COMMANDS = {c.name or c.callback.__name__.rstrip('_').replace('_', '-') for c in app.registered_commands}
SOURCES = sorted((Path(__file__).parents[1]/'hipt_nb').glob('*.py'))

def noted(said): return [s for s in said if 'do not exist' in s]

def hipt(*args):
    res = CliRunner().invoke(app, list(map(str, args)))
    return res.exit_code, res.output

@pytest.fixture
def imported(tmp_path):
    "A run of features of another tool, whose slides do not exist"
    for i in range(4): toy_files(tmp_path/'files', replace(toy_flat(i), extent=(90000, 90000)), 'trident', 'toy')
    ids = [f's{i:02}' for i in range(4)]
    pd.DataFrame(dict(path=[f'gone/{i}.svs' for i in ids], label=['a', 'b']*2)).to_csv(tmp_path/'m.csv', index=False)
    with logged() as said:
        code, out = hipt('import', tmp_path/'m.csv', '--from', tmp_path/'files', '--encoder', 'toy', '--grid', 8,
                         '--out', tmp_path/'run')
    assert code==0 and not noted(said), (out, said)
    return tmp_path

def advised(message):
    "The command in a message"
    return re.search(r"'hipt ([^']+)'", str(message))[1]

def follow(advice, folder):
    "What the advice says, with the folder filled in"
    words = [str(folder/'files') if w=='FOLDER' else w for w in shlex.split(advice)]
    code, out = hipt(words[0], folder/'m.csv', *words[1:], '--out', folder/'run', '--grid', 8)
    assert code==0, out

@pytest.mark.parametrize('what', ['gone', 'damaged', 'tiles'])
def test_advice_works_for_imported_features(imported, what):
    run = Run(imported/'run')
    path = run.tiles('s01') if what=='tiles' else run.features('toy', 's01')
    before = run.features('toy', 's01').read_bytes()
    if what=='gone': path.unlink()
    else: path.write_bytes(b'nothing')
    with pytest.raises(HIPTError) as e: (read_tiles if what=='tiles' else read_features)(path)
    advice = advised(e.value)
    assert advice.startswith('import --from FOLDER')
    if what!='gone': path.unlink()  # as it says: delete it
    follow(advice, imported)
    assert run.features('toy', 's01').read_bytes()==before

def test_other_messages_name_import(imported):
    run = Run(imported/'run')
    run.features('toy', 's01').unlink()
    with pytest.raises(HIPTError, match="Run 'hipt import --from FOLDER --encoder toy'"):
        load_features(run, run.manifest(), 'toy')
    with pytest.raises(HIPTError, match="'hipt import"), patch_array(run.features('toy', 's01')): pass
    for p in (imported/'run'/'features'/'toy').iterdir(): p.unlink()
    with pytest.raises(HIPTError, match="'hipt import"): run.encoder_name()

def test_missing_slides_are_said_where_they_are_opened(imported):
    with logged() as said:
        code, out = hipt('export', imported/'m.csv', '--out', imported/'run', '--to', 'clam', '--features')
    assert code==0 and not noted(said), (out, said)
    with logged() as said: hipt('tile', imported/'m.csv', '--out', imported/'other')
    assert noted(said)

@pytest.mark.parametrize('path', SOURCES, ids=lambda p: p.stem)
def test_every_advised_command_exists(path):
    "Its name and its options, wherever a message says 'hipt ...'"
    for said in re.findall(r"'hipt ([a-z][^'\n{]*)'", path.read_text('utf-8')):
        verb, *rest = said.split()
        assert verb in COMMANDS, said
        options = [w.split('=')[0].strip('[].,;:') for w in rest if w.startswith('--')]
        text = hipt(verb, '--help')[1] if options else ''
        for option in options: assert option in re.sub(r'\s+', ' ', text), f'{said}: {option}'
