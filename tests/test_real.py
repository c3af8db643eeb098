"Real slides, found through HIPT_DATA"
import os
from pathlib import Path
import numpy as np, pytest

DATA = Path(os.environ.get('HIPT_DATA', 'missing'))
pytestmark = pytest.mark.skipif(not DATA.is_dir(),
                                reason='set HIPT_DATA to the folder of real slides (see CONTRIBUTING.md)')

@pytest.mark.parametrize('name,mpp,levels', [('CMU-1-Small-Region.svs', .499, 1),
                                             ('tcga-cr-7395-01a-01-ts1.svs', None, 2),
    ('fluorescence-7-levels.ndpi', .2282, 7), ('camelyon-jpeg.dcm', 28.97, 1), ('histoprep-slide.jpeg', None, 1),
    ('hgsc_nest.jpg', None, 1)])
def test_every_format_opens(name, mpp, levels):
    from hipt_nb.slide import Slide, slide_info
    with Slide(DATA/name) as s:
        i = slide_info(s)
        assert len(s.levels)==levels and (i['mpp'] is None if mpp is None else abs(i['mpp']-mpp)<.01*mpp)
        t = s.thumbnail(256)
        assert max(t.shape)==256 and t.std()>5

def test_non_integer_level_agrees_with_level_0():
    "The same window through level 1 (downsample 2.0005) and through level 0 shows the same tissue"
    from hipt_nb.slide import Slide
    with Slide(DATA/'tcga-cr-7395-01a-01-ts1.svs', slide_mpp=.25) as s:
        a = s.read(2000, 1500, 400, 400, .5).astype(float)
        s.levels = s.levels[:1]
        b = s.read(2000, 1500, 400, 400, .5).astype(float)
    assert np.corrcoef(a.ravel(), b.ravel())[0,1] > .97

def test_regions_lie_on_tissue():
    from hipt_nb.slide import Slide
    from hipt_nb.tiling import tile_slide
    with Slide(DATA/'CMU-1-Small-Region.svs') as s:
        t = tile_slide(s, region_size=1024)
        assert t.mpp==pytest.approx(.499) and t.mask().any((1,2)).all()
        patches = [t.read_patch(s, m, r, c) for m,r,c in zip(*np.nonzero(t.mask(.5)))]
        assert max(p.mean() for p in patches)<235  # no white patch counts as tissue

def test_a_frame_full_of_tissue_is_kept_and_said():
    "A detail of a section, cut out without glass"
    from hipt_nb.areas import find_tissue
    from hipt_nb.slide import Slide
    with Slide(DATA/'OS-1-detail.ome.tif') as s: t = find_tissue(s)
    assert t.mask.mean()>.9
    assert any('of the slide counts as tissue' in o for o in t.params['unsure']), t.params['unsure']
