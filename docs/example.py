"""The viewer's example on the site: a phantom, the attention of a tiny pyramid on it, and the ground truth

The page is as `hipt view --static` writes it. `docs/example/` keeps tiles and maps; the slide is generated anew. To
make tiles and maps again, with a pyramid trained for a few minutes:

    python docs/example.py slides && hipt tile slides --out run --region-size 1024
    hipt pretrain slides --out run --preset hipt-tiny --recipe small --samples1 4000 --samples2 2000
    hipt embed slides --out run && hipt attend slides --out run --top 2
    cp run/tiles/phantom.h5 docs/example/tiles.h5 && cp run/maps/hipt-tiny/phantom.h5 docs/example/maps.h5"""
import shutil
import sys
import tempfile
from pathlib import Path

here = Path(__file__).resolve().parent
stored = here/'example'
MOST = 2_000_000  # bytes of the whole page


# name, label, seed; the first is shown
SLIDES = ('phantom', 'glandular', 11), ('b', 'infiltrative', 12), ('c', 'glandular', 13)


def make_slides(folder, slides):
    "Generate them, 2048 px a side"
    from hipt_nb.phantom import make_slide
    Path(folder).mkdir(parents=True, exist_ok=True)
    return [make_slide(Path(folder)/f'{name}.tif', label, seed=seed, size=2048) for name, label, seed in slides]


def truth(slide):
    "The share of glands and nests in every token, as a layer"
    import cv2
    from hipt_nb.phantom import mask_path
    from hipt_nb.scene import MASK_CLASSES
    mask = cv2.imread(str(mask_path(slide.path)), 0)
    w, h = slide.dimensions
    share = cv2.resize((mask >= MASK_CLASSES['gland']).astype('float32'), (w//32, h//32), interpolation=cv2.INTER_AREA)
    name = 'ground truth: epithelium'
    place = dict(x=0, y=0, width=w, height=h)
    return dict(name=name, level=name, array=share, **place, units='share of epithelium', low=0, high=1)


def make_page(out):
    "Write the page into folder `out`"
    from hipt_nb.attend import map_layers, map_regions, read_maps
    from hipt_nb.slide import Slide
    from hipt_nb.tiling import read_tiles
    from hipt_nb.viewer import build_viewer
    tiles, maps = read_tiles(stored/'tiles.h5'), read_maps(stored/'maps.h5')
    with tempfile.TemporaryDirectory() as d, Slide(*make_slides(d, SLIDES[:1])) as slide:
        layers = map_layers(tiles, maps, ('relative', 'slide'))
        layers.sort(key=lambda m: m['level'] == 'patches')  # tokens first: they show best what the tiny pyramid learned
        regions = map_regions(tiles, maps)
        return build_viewer(slide, [*layers, truth(slide)], out, label='glandular', regions=regions)


def cached(out):
    "Copy the page to `out`; it is made again only if its sources have changed"
    kept = here/'_build'/'example'
    made = kept/'index.html'
    package = here.parent/'hipt_nb'
    modules = package/'viewer.py', package/'phantom.py'
    parts = [Path(__file__), *modules, *stored.iterdir(), *(package/'static').iterdir()]
    if not made.exists() or made.stat().st_mtime < max(p.stat().st_mtime for p in parts): make_page(kept)
    size = sum(p.stat().st_size for p in kept.rglob('*') if p.is_file())
    if size > MOST: sys.exit(f'the viewer example has {size/1e6:.1f} MB: at most {MOST/1e6:.0f} are allowed')
    shutil.copytree(kept, out)


if __name__ == '__main__': make_slides(sys.argv[1], SLIDES)
