"""All 54 published pictures of one region with hipt-4k, the published way and ours; and a slide's attention against its
embedding.

The published way, written from its description: float32, explicit attention, 256 patches at a time; every shift (0,
128, 256, 384 px) is a region of its own that goes through level 1 twice, once for features and once for attention,
and then through level 2; scores are ranked patch by patch, repeated to the size of the picture, coloured as floating
point numbers and blended one by one. Ours: of the four shifts two are moves of the patch grid; tokens and attention
come from one pass; colours are looked up once per cell. The floor: the operations of the two passes that must be
made over the measured rate of large matrix products in the same precision. A slide's attention is its embedding with
attention kept, so it should cost hardly more; with four shifts, two embeddings."""
import json
import numpy as np, torch
from matplotlib import colormaps
from scipy.stats import rankdata
from hipt_nb.attention import coverage, factorised, region_scores
from hipt_nb.drawing import overlay
from hipt_nb.precision import cpu_likes_bf16
from hipt_nb.grids import cut_patches
from hipt_nb.hipt import create_hipt
from hipt_nb.vit import flops
from region import explicit_attention
from timing import alternate, arguments, ceiling, keep, machine, ratio, share_of_floor

OFFSETS = 0,128,256,384

def rank(a): return rankdata(a).reshape(a.shape)/a.size

def published_scores(hipt, image, scale):
    "Ranks of one shifted region, at the size of the picture"
    patches = cut_patches(hipt.normalise(image), 256)[0]
    rows, cols = patches.shape[:2]; patches = patches.flatten(0, 1)
    tokens = torch.cat([hipt.level1(p) for p in patches.split(256)])
    low = torch.cat([hipt.level1.attention(p)[:,:,0,1:] for p in patches.split(256)]).unflatten(-1, (16,16)).numpy()
    high = hipt.level2.attention(tokens.T.reshape(1, -1, rows, cols))[0,:,0,1:].reshape(-1, rows, cols).numpy()
    big = lambda a, n: a.repeat(n, -2).repeat(n, -1)
    low = [np.concatenate([np.concatenate([big(rank(low[r*cols+c,h]), 16//scale) for c in range(cols)], 1)
                           for r in range(rows)]) for h in range(low.shape[1])]
    return np.stack(low), np.stack([big(rank(a), 256//scale) for a in high])

def published(hipt, image, scale=4):
    "The 54 pictures"
    n = len(image); low, high, seen = [], [], np.zeros((n//scale,n//scale))
    for o in OFFSETS:
        moved = np.full_like(image, 255); moved[:n-o,:n-o] = image[o:,o:]
        with explicit_attention(): a,b = published_scores(hipt, moved, scale)
        k = o//scale
        place = lambda s, k=k: np.pad(s, ((0,0),(k,0),(k,0)))[:,:n//scale,:n//scale]
        if o<=128: low.append(place(a))
        high.append(place(b)); seen[k:,k:] += 1
    twice = 1+(np.indices(seen.shape).min(0)>=128//scale)
    low, high = sum(low)/twice, sum(high)/seen
    small = image[::scale,::scale]; cmap = colormaps['viridis']
    def blend(s, alpha=.5): return np.uint8(cmap(s)[...,:3]*255*alpha + small*(1-alpha))
    out = ([blend(s) for s in high] + [blend(s) for s in low]
           + [np.where((s>.5)[...,None], blend(s, .95), small) for s in low])
    return out + [blend((h*seen+l*2*twice)/(seen+2*twice)) for h in high for l in low]

def ours(hipt, image, scale=4):
    "The same"
    t, p = region_scores(hipt, image, OFFSETS, 'rank', padding='published', cell=16)
    n = len(image)
    weights = 2*coverage(n, n, OFFSETS[:2], padding='published'), coverage(n, n, OFFSETS, padding='published')
    small = np.ascontiguousarray(image[::scale,::scale])
    draw = lambda s, alpha=.5: overlay(small, s, alpha, vmin=0, vmax=1)
    above = np.where(t>.5, t, np.nan)
    return ([draw(s) for s in (*p, *t)] + [draw(s, .95) for s in above]
            + [draw(s) for of in factorised(t, p, 'mean', weights) for s in of])

def pictures(hipt, image, fast, rounds):
    "All 54, the published way, ours in float32, and ours in the fastest arithmetic"
    size = len(image)
    n = (size//256)**2
    needed = 2*n*flops(hipt.level1, 16, 16) + 4*flops(hipt.level2, size//256, size//256)
    models, ways, done = {d: pyramid(d) for d in dict.fromkeys(('float32', fast))}, {}, {}
    for d,m in models.items():
        ways[f'ours in {d}'] = lambda m=m: ours(m, image)
        ways[d], done[d] = ceiling(d)
    ways['published'] = lambda: published(hipt, image)
    t = alternate(ways, rounds)
    a, b = published(hipt, image), ours(models['float32'], image)
    assert len(a)==len(b)==54
    apart = np.mean([np.abs(x.astype(int)-y).mean() for x,y in zip(a, b)])
    return dict(region_px=size, pictures=len(b), fast_arithmetic=fast,
        mean_difference_of_pictures_of_255=round(float(apart), 2),
        times_faster_than_published={d: ratio(t['published'], t[f'ours in {d}']) for d in models},
        share_of_floor={d: share_of_floor((t[d], done[d]), t[f'ours in {d}'], needed) for d in models})

def pyramid(precision):
    hipt = create_hipt('hipt-4k', precision=precision)
    hipt.tune()
    return hipt.frozen()

def slide(image, fast, rounds, regions):
    "Attention of a slide's regions over their embedding"
    hipt, small = pyramid(fast), [image[:1024,:1024]]*regions
    attend = lambda offsets: [region_scores(hipt, x, offsets) for x in small]
    t = alternate(dict(embed=lambda: [hipt(x) for x in small], one=lambda: attend((0,)),
                       four=lambda: attend(OFFSETS)), rounds)
    return dict(slide_regions=regions, slide_region_px=1024, attention_over_embedding=ratio(t['one'], t['embed']),
                four_shifts_over_embedding=ratio(t['four'], t['embed']))

@torch.inference_mode()
def main(a):
    size, regions = (1024, 1) if a.quick else (a.size, a.regions)
    hipt, rng = create_hipt('hipt-4k'), np.random.default_rng(0)
    image = rng.integers(0, 256, (size//16,size//16,3), dtype=np.uint8).repeat(16, 0).repeat(16, 1)
    fast = 'bfloat16' if cpu_likes_bf16() else 'float32'
    res = machine() | pictures(hipt, image, fast, a.rounds) | slide(image, fast, max(3, a.rounds), regions)
    print(json.dumps(res, indent=1))
    keep(a.out, res)

if __name__=='__main__':
    p = arguments(__doc__, rounds=3)
    p.add_argument('--size', type=int, default=4096, help='side of the region, px')
    p.add_argument('--regions', type=int, default=64, help='regions of the slide, 1024 px each')
    main(p.parse_args())
