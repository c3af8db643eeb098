"""Masks by CLAM's `segmentTissue` (github.com/mahmoodlab/CLAM, GPL-3.0), run beside this project on a picture made by a
formula.

    python tests/golden/make_tissue.py path/to/a/clone/of/CLAM    # writes tests/golden/tissue.npz

The clone may be bare. Only that one function is run; nothing of it is stored but the masks that it found."""
import ast, subprocess, sys
from pathlib import Path
import cv2, numpy as np

PRESETS = dict(  # CLAM's defaults and presets/*.csv
    hipt=dict(sthresh=8, mthresh=7, close=4, use_otsu=False, filter_params=dict(a_t=100, a_h=16, max_n_holes=8)),
    tcga=dict(sthresh=8, mthresh=7, close=4, use_otsu=False, filter_params=dict(a_t=16, a_h=4, max_n_holes=8)),
    biopsy=dict(sthresh=15, mthresh=11, close=2, use_otsu=False, filter_params=dict(a_t=1, a_h=1, max_n_holes=2)),
    resection=dict(sthresh=15, mthresh=11, close=4, use_otsu=False, filter_params=dict(a_t=100, a_h=16, max_n_holes=8)))

def picture(n=768):
    "Pieces and holes of many sizes, strong and pale, on noisy glass; 8 µm per pixel"
    rng = np.random.default_rng(5)
    stain = np.zeros((n,n), np.uint8)
    for x,y,a,b,angle,s in [(230,250,190,150,20,120), (600,560,110,150,70,60), (620,140,60,50,0,120),
                            (110,620,40,25,30,20), (300,640,12,9,0,120), (420,690,80,14,10,11)]:
        cv2.ellipse(stain, (x,y), (a,b), angle, 0, 360, s, -1)
    for x,y,r in [(160,220,40), (260,180,24), (300,300,14), (220,330,9), (330,240,5), (600,520,34), (560,620,16),
                  (640,640,10), (610,600,7), (620,140,12)]:
        cv2.circle(stain, (x,y), r, 0, -1)
    stain[rng.random((n,n))<.01] = 90   # dust
    white = 240 + rng.integers(-2, 3, (n,n,3))
    return np.clip(white - (stain[...,None]*np.array([.3,1.,.4])).astype(int), 0, 255).astype(np.uint8)

def clams(repo):
    "`segmentTissue` as a plain function of an object"
    src = subprocess.check_output(['git', '-C', repo, 'show', 'HEAD:wsi_core/WholeSlideImage.py'], text=True)
    cls = next(n for n in ast.parse(src).body if getattr(n, 'name', '')=='WholeSlideImage')
    space = dict(np=np, cv2=cv2)
    exec(compile(ast.Module([n for n in cls.body if getattr(n, 'name', '')=='segmentTissue'], []), 'CLAM', 'exec'),
         space)
    return space['segmentTissue']

def paint(tissue, holes, shape):
    m = np.zeros(shape, np.uint8)
    cv2.drawContours(m, tissue, -1, 1, -1)
    # a hole's outline is made of tissue pixels
    for h in [h for hs in holes for h in hs]: cv2.drawContours(m, [h], -1, 0, -1); cv2.drawContours(m, [h], -1, 1, 1)
    return m

def main(repo):
    image, segment, res = picture(), clams(repo), {}
    class Slide:
        def read_region(self, *_): return image
    for name,p in PRESETS.items():
        me = type('', (), dict(wsi=Slide(), level_dim=[image.shape[1::-1]], level_downsamples=[(32.,32.)],
                               scaleContourDim=staticmethod(lambda c, s: c),
                               scaleHolesDim=staticmethod(lambda c, s: c)))()
        segment(me, 0, **p)
        res[name] = np.packbits(paint(me.contours_tissue, me.holes_tissue, image.shape[:2]))
    np.savez_compressed(Path(__file__).parent/'tissue.npz', **res)
    print({k: int(np.unpackbits(v).sum()) for k,v in res.items()})

if __name__=='__main__': main(sys.argv[1])
