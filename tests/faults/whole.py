"A whole run, made by the commands, and copies of it to break"
import json
import os
import shutil
from pathlib import Path

ALL = 'run/manifest.csv', '--out', 'run'
ONE = 'run/cohort/P01-1.tif', '--out', 'run'
ENCODER = '--encoder', 'hipt-tiny'
EMBED = 'embed', *ONE


def make_run(folder, hipt):
    from hipt_nb.phantom_cohort import make_cohort
    make_cohort(folder/'run'/'cohort', n_slides=8, n_patients=8, size=1024, workers=1)
    cohort = 'run/cohort/manifest.csv', '--out', 'run'
    few = '--samples1', 8, '--samples2', 4, '--batch-size', 4
    for args in (('tile', *cohort, '--region-size', 512, '--blur', 'none'),
                 ('pretrain', *cohort, '--preset', 'hipt-tiny', '--recipe', 'small', *few),
                 ('embed', *cohort), ('train', *cohort, '--folds', 2, '--epochs', 1), ('predict', *cohort),
                 ('evaluate', *cohort, '--no-baselines'), ('attend', *ONE), ('report', *cohort),
                 *(('export', *cohort, '--to', tool, '--features') for tool in ('trident', 'clam', 'stamp'))):
        rc, text = hipt(folder, *args, seconds=900)
        assert rc==0, text
    rows = (folder/'run'/'evaluation.csv').read_text().splitlines()
    other = folder/'run'/'evaluation'/'external-other'
    other.mkdir()
    (other/'scores.csv').write_text('\n'.join(['cohort,'+rows[0], *(f'{c},{r}' for r in rows[1:] for c in ('cross-validation', 'other', 'difference')), '']))
    (folder/'splits').mkdir()
    for k in range(2):
        sides = [f'{i},P0{i+1+4*k}-1,P0{i+5-4*k}-1,P0{i+7-4*k}-1' for i in range(2)]
        (folder/'splits'/f'splits_{k}.csv').write_text('\n'.join([',train,val,test', *sides, '']))
    square = [[[100, 100], [600, 100], [600, 600], [100, 600], [100, 100]]]
    feature = dict(type='Feature', id='00000000-0000-4000-8000-000000000001',
                   geometry=dict(type='Polygon', coordinates=square),
                   properties=dict(objectType='annotation', name='seen', classification=dict(name='Tumor')))
    (folder/'run'/'notes').mkdir()
    (folder/'run'/'notes'/'P01-1.geojson').write_text(json.dumps(dict(type='FeatureCollection', features=[feature])))


def fresh(finished):
    "The run as it was made, where it was made; whatever stood there goes"
    folder = finished/'work'/'here'
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(finished/'whole', folder, copy_function=_copy)
    return folder


def _copy(source, target):
    "Small text files and whatever may be appended to are copied; the rest is linked"
    if Path(source).suffix in ('.csv', '.json', '.geojson'): shutil.copy(source, target)
    else: os.link(source, target)


def keep(how, args, rc, fault, text):
    "Note how a command ended, for the counts"
    if not (path := os.environ.get('FAULTS_LOG')): return
    test = os.environ.get('PYTEST_CURRENT_TEST', '').split('::')[-1].split(' ')[0]
    row = dict(test=test, how=how, command=' '.join(map(str, args)), rc=rc, fault=fault, text=text[-1500:])
    with open(path, 'a') as f: print(json.dumps(row), file=f)
