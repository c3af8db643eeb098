"""Tissue found by every preset, as intersection over union with the truth: two whole frozen sections with masks, four
slides outlined by eye (results/tissue-outlines.json: polygons in level-0 px, `holes` are cut out), phantoms with known
truth. Slides are found through HIPT_DATA; those that are missing are left out. For the rest of the real slides, of
which nobody has drawn the truth, the share of the frame is given."""
import argparse, json, os, tempfile
from pathlib import Path
import cv2, numpy as np

HERE = Path(__file__).parent
WITH_MASKS = {'her2st/B4.jpg': .69, 'her2st/C2.jpg': .69}   # µm per pixel, where the file does not say
OTHERS = {'camelyon-jpeg.dcm': None, 'OS-1-detail.ome.tif': None,
          'OS-2-ndpi.ome.tif': None, 'OS-2-vsi.ome.tif': None, 'fluorescence-7-levels.ndpi': None}

def painted(outline, shape, scale, fine=8):
    "Outlines as a mask: a pixel counts where at least half of it is inside"
    def inside(rings):
        m = np.zeros([n*fine for n in shape], np.uint8)
        for r in rings: cv2.fillPoly(m, [np.round(np.array(r)/scale*fine).astype(np.int32)], 255)
        return cv2.resize(m, shape[::-1], interpolation=cv2.INTER_AREA)>127
    return inside(outline['outlines']) & ~inside(outline['holes'])

def from_image(path, shape):
    full = (cv2.imread(str(path), 0)>0).astype(np.uint8)*255
    return cv2.resize(full, shape[::-1], interpolation=cv2.INTER_AREA)>127

def cases(data, folder):
    "(name, slide file, µm per pixel, function from the view's shape and scale to the truth or None)"
    from hipt_nb.phantom import make_slide, mask_path
    for name,mpp in WITH_MASKS.items():
        p = data/name
        yield name, p, mpp, lambda shape, scale, p=p: from_image(p.with_name(f'{p.stem}_tissue.png'), shape)
    for name,o in json.loads((HERE/'results'/'tissue-outlines.json').read_text()).items():
        yield name, data/name, o['slide_mpp'], lambda shape, scale, o=o: painted(o, shape, scale)
    for seed in range(4):
        p = make_slide(Path(folder)/f'phantom-{seed}.tif', seed=seed, size=4096)
        yield p.name, p, None, lambda shape, scale, p=p: from_image(mask_path(p), shape)
    for name,mpp in OTHERS.items(): yield name, data/name, mpp, lambda shape, scale: None

def main(out):
    from hipt_nb.slide import Slide
    from hipt_nb.tissue import TISSUE_PRESETS, overview, segment
    res, data = {}, Path(os.environ.get('HIPT_DATA', '.'))
    print(f"{'':28}{'true':>7}" + ''.join(f'{k:>11}' for k in TISSUE_PRESETS))
    with tempfile.TemporaryDirectory() as folder:
        for name,path,mpp,truth_of in cases(data, folder):
            if not path.exists(): continue
            with Slide(path, slide_mpp=mpp) as s:
                view = overview(s)
                truth = truth_of(view[0].shape[:2], view[1])
                masks = {k: segment(s, k, view=view).mask for k in TISSUE_PRESETS}
            row = dict(share={k: round(float(m.mean()), 3) for k,m in masks.items()})
            if truth is not None:
                row |= dict(true_share=round(float(truth.mean()), 3),
                            iou={k: round(float((m&truth).sum()/(m|truth).sum()), 3) for k,m in masks.items()})
            res[name] = row
            true = f"{row['true_share']:7.3f}" if truth is not None else '      -'
            what = row['iou'] if truth is not None else row['share']
            print(f'{name:28}{true}' + ''.join(f'{v:>11.3f}' for v in what.values()), 
                  '' if truth is not None else '(share)')
    if out: Path(out).write_text(json.dumps(res, indent=1)+'\n')

if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--out', default='benchmarks/results/tissue-cpu.json', help='JSON file to write')
    main(**vars(p.parse_args()))
