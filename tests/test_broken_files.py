"Files that were found to end in a traceback, or in a library's words, when one of their values was changed"
import json

import numpy as np
import pandas as pd
import pytest

from hipt_nb.core import DamagedError, HIPTError, same_file, write_h5

MADE_BY = dict(encoder_name='toy', level1_sha256='0'*64, mean=[.5]*3, std=[.5]*3, min_tissue=.1, mpp=.5, patch_size=256,
               region_size=512, sizes=[256], slide_mpp=.5, precision='float32', tiles='a50d8e96ff52')


def features_file(path, **made_by):
    arrays = dict(coords=np.zeros((1, 2), np.int64), tissue=np.ones((1, 2, 2), np.float16),
                  patch=np.zeros((1, 2, 2, 8), np.float16), region=np.zeros((1, 8), np.float32))
    write_h5(path, arrays, dict(slide_id='a', made_by=MADE_BY | made_by))
    return path


@pytest.mark.parametrize('change', [dict(mpp='../x'), dict(sizes=[None]), dict(mean={'a': 1}), dict(encoder_name=[1]),
                                    dict(min_tissue=True), dict(slide=7), dict(icc='NaN')])
def test_what_features_say_they_were_made_by(tmp_path, change):
    from hipt_nb.features import read_features, read_made_by
    read_features(features_file(tmp_path/'whole.h5'))
    path = features_file(tmp_path/'a.h5', **change)
    for read in (read_features, read_made_by):
        with pytest.raises(DamagedError, match="a.h5.* is damaged.*delete it and run 'hipt embed' again"): read(path)


def test_a_slide_that_tiles_cannot_have_been_made_from(tmp_path):
    from hipt_nb.tiling import Tiles, read_tiles, write_tiles
    grid = np.ones((1, 2, 2), np.float16)
    def written(slide):
        tiles = Tiles('a', np.zeros((1, 2), np.int64), grid, grid*0, grid*0, .5, .5, 512, 256, dict(min_tissue=.1),
                      dict(slide=slide))
        write_tiles(tmp_path/'a.h5', tiles)
        return read_tiles(tmp_path/'a.h5')
    written('253591-b64d6d632871fcfa')
    for slide in (7, ['../x'], True):
        with pytest.raises(DamagedError, match='a.h5'): written(slide)
    for slide in ('../x', '-1', '1e400'): assert not same_file(tmp_path/'a.h5', slide, tmp_path/'a.h5')


@pytest.mark.parametrize('change', [dict(columns=dict(label=3)), dict(columns=['label']), dict(made_by=dict(mpp='x')),
                                    dict(folds=[dict(train='a')]), dict(n_folds='2')])
def test_settings_of_a_slide_model(tmp_path, change):
    from hipt_nb.finetune import read_config
    folds = [dict(train=['a'], test=['b'])]
    whole = dict(schema=2, n_folds=1, columns=dict(label='grade'), made_by=MADE_BY, folds=folds)
    path = tmp_path/'config.json'
    path.write_text(json.dumps(whole))
    read_config(path)
    path.write_text(json.dumps(whole | change))
    with pytest.raises(DamagedError, match="config.json.* is damaged.*run 'hipt train' again"): read_config(path)


def test_probabilities_of_one_class(tmp_path):
    from hipt_nb.metrics import read_predictions
    path = tmp_path/'predictions.csv'
    path.write_text('slide_id,patient,label,pred,fold,prob_x\na,a,x,x,0,.5\n')
    with pytest.raises(DamagedError, match='probabilities of one class alone'): read_predictions(path)
    path.write_text('slide_id,patient,label,pred,fold,prob_x,prob_y\na,a,x,x,0,.5,<script>\n')
    with pytest.raises(DamagedError, match='no numbers'): read_predictions(path)


METRICS = 'model,metric,value,low,high,slides,patients,how,note,unit'


@pytest.mark.parametrize('head', [METRICS.replace('metric', 'x'), METRICS.replace('value', '1e400'), 'model'])
def test_tables_of_the_report(tmp_path, head):
    "Those of the run, and those of an external cohort"
    from hipt_nb.report import scores_section
    from hipt_nb.run import Run
    run, row = Run(tmp_path), 'HIPT,AUC,.5,.4,.6,8,8,folds,,slide'
    whole, broken = (f'{h}\n{",".join(row.split(",")[:h.count(",")+1])}\n' for h in (METRICS, head))
    run.table('evaluation').write_text(whole)
    assert scores_section(run)['metrics']
    run.table('evaluation').write_text(broken)
    with pytest.raises(HIPTError, match="evaluation.csv.*run 'hipt evaluate' again"): scores_section(run)
    run.table('evaluation').write_text(whole)
    other = run.evaluation/'external-b'
    other.mkdir(parents=True)
    cohorts = lambda text: '\n'.join(f'{c},{l}' for c,l in zip(('cohort', 'b'), text.splitlines()))
    (other/'scores.csv').write_text(cohorts(whole))
    assert scores_section(run)['external'][0]['name']=='b'
    (other/'scores.csv').write_text(cohorts(broken))
    with pytest.raises(HIPTError, match="scores.csv.*run 'hipt evaluate' again"): scores_section(run)


def test_logs_and_tables(tmp_path):
    from hipt_nb.monitor import read_log
    from hipt_nb.report import training_section
    from hipt_nb.run import Run
    (tmp_path/'log.csv').write_text('step,loss\n0,1.5\n1,<script>\n')
    with pytest.raises(DamagedError, match="log.csv.*run 'hipt pretrain' again"): read_log(tmp_path/'log.csv')
    log = Run(tmp_path).level('toy', 1)/'log.csv'
    log.parent.mkdir(parents=True)
    for text in ('samples,x\n4,1.5\n', 'samples,loss\n4,<script>\n'):
        log.write_text(text)
        with pytest.raises(DamagedError, match="log.csv.*run 'hipt pretrain' again"): training_section(Run(tmp_path))
    log.write_text('samples,loss\n')   # cut off after its head
    assert training_section(Run(tmp_path))
    (tmp_path/'tiles.csv').write_bytes(b'\x89PNG\r\n\x1a\n\0\xff')
    with pytest.raises(DamagedError, match='tiles.csv.*delete it, and start the command again'):
        Run(tmp_path).add_rows('tiles', pd.DataFrame(dict(slide_id=['a'], regions=[1])))


@pytest.mark.parametrize('point', ['[NaN, 1]', '["x", 1]', '[1e400, 1]', '[1]', '[null, 2]'])
def test_outlines_in_the_words_of_a_library(tmp_path, point):
    from hipt_nb.areas import _read_polygons
    ring = f'[[0, 0], {point}, [9, 9], [0, 0]]'
    (tmp_path/'a.geojson').write_text(f'{{"type": "Polygon", "coordinates": [{ring}]}}')
    with pytest.raises(HIPTError, match='a.geojson holds an outline that cannot be read') as e:
        _read_polygons(tmp_path/'a.geojson')
    assert 'Exception' not in str(e.value) and 'Error' not in str(e.value)
