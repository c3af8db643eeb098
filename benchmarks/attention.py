"""All 54 published pictures of one region with hipt-4k, the published way and ours; and a slide's attention against its
embedding.

The published way, written from its description: float32, explicit attention, 256 patches at a time; every shift (0,
128, 256, 384 px) is a region of its own that goes through level 1 twice, once for features and once for attention,
and then through level 2; scores are ranked patch by patch, repeated to the size of the picture, coloured as floating
point numbers and blended one by one. Ours: of the four shifts two are moves of the patch grid; tokens and attention
come from one pass; colours are looked up once per cell. The floor: the operations of the two passes that must be
made over the measured rate of large matrix products in the same precision. A slide's attention is its embedding with
attention kept, so it should cost hardly more; with four shifts, two embeddings."""
import argparse, json, platform, statistics, time
from pathlib import Path
import numpy as np, torch
from matplotlib import colormaps
from scipy.stats import rankdata
from hipt_nb.attention import coverage, factorised, region_scores
from hipt_nb.drawing import overlay
from hipt_nb.precision import cpu_likes_bf16
from hipt_nb.grids import cut_patches
from hipt_nb.hipt import create_hipt
from hipt_nb.vit import flops
from region import explicit_attention, matrix_rates

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

def timed(fn, *args):
    t = time.perf_counter(); out = fn(*args)
    return time.perf_counter()-t, out

def interleaved(fns, runs):
    "Median seconds of each function, run in turn; the first results"
    times, out = [[] for _ in fns], [None]*len(fns)
    for _ in range(runs):
        for i,f in enumerate(fns):
            s, r = timed(f); times[i].append(s)
            if out[i] is None: out[i] = r
    return [statistics.median(t) for t in times], out

def pictures(hipt, image, fast, runs):
    "All 54, the published way, ours in float32, and ours in the fastest arithmetic"
    size = len(image)
    hipt.tune()
    (t_pub, t_ours), (a, b) = interleaved([lambda: published(hipt, image), lambda: ours(hipt, image)], runs)
    assert len(a)==len(b)==54
    apart = np.mean([np.abs(x.astype(int)-y).mean() for x,y in zip(a, b)])
    n = (size//256)**2
    ops = 2*n*flops(hipt.level1, 16, 16) + 4*flops(hipt.level2, size//256, size//256)
    res = dict(region_px=size, pictures=len(b), runs=runs,
        float32_times_faster_than_published=round(t_pub/t_ours, 1),
        mean_difference_of_pictures_of_255=round(float(apart), 2),
        float32_times_slower_than_floor=round(t_ours/(ops/matrix_rates(torch.float32, torch.device('cpu'))[0]), 2))
    if fast!='float32':
        hipt.precision = fast; hipt.tune()
        t_fast, _ = interleaved([lambda: ours(hipt, image)], runs)
        res['fast_times_faster_than_published'] = round(t_pub/t_fast[0], 1)
        res['fast_times_slower_than_floor'] = round(
            t_fast[0]/(ops/matrix_rates(torch.bfloat16, torch.device('cpu'))[0]), 2)
    return res

def slide(hipt, image, fast, runs, regions):
    "Attention of a slide's regions over their embedding"
    hipt.precision = fast; hipt.tune(); hipt = hipt.frozen()
    small = [image[:1024,:1024]]*regions
    embed = lambda: [hipt(x) for x in small]
    attend = lambda offsets: [region_scores(hipt, x, offsets) for x in small]
    (e, one, four), _ = interleaved([embed, lambda: attend((0,)), lambda: attend(OFFSETS)], max(3, runs))
    return dict(slide_regions=regions, slide_region_px=1024, attention_over_embedding=round(one/e, 2),
                four_shifts_over_embedding=round(four/e, 2))

@torch.inference_mode()
def main(out, size, runs, regions, only):
    hipt, rng = create_hipt('hipt-4k'), np.random.default_rng(0)
    image = rng.integers(0, 256, (size//16,size//16,3), dtype=np.uint8).repeat(16, 0).repeat(16, 1)
    fast = 'bfloat16' if cpu_likes_bf16() else 'float32'
    res = json.loads(Path(out).read_text()) if only and Path(out).exists() else {}
    cpu = f'{platform.machine()} CPU ({torch.backends.cpu.get_cpu_capability()}), {torch.get_num_threads()} threads'
    res |= dict(machine=cpu, torch=torch.__version__, fast_arithmetic=fast)
    if only!='slide': res |= pictures(hipt, image, fast, runs)
    if only!='pictures': res |= slide(hipt, image, fast, runs, regions)
    print(json.dumps(res, indent=1))
    if out: Path(out).parent.mkdir(parents=True, exist_ok=True); Path(out).write_text(json.dumps(res, indent=1)+'\n')

if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--out', default=Path(__file__).parent/'results'/'attention-cpu.json', help='JSON file to write')
    p.add_argument('--size', type=int, default=4096, help='side of the region, px')
    p.add_argument('--runs', type=int, default=1)
    p.add_argument('--regions', type=int, default=64, help='regions of the slide, 1024 px each')
    p.add_argument('--only', choices=['pictures', 'slide'],
                   help='one of the two parts; the other is kept as it is in the file')
    main(**vars(p.parse_args()))
