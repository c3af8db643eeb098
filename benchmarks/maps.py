"""All published images of one 4096-px region (6 + 6 + 6 + 36 = 54), and a whole slide's attention beside embedding it.

The published way, from its description: for each of the four shifts (0, 128, 256, 384 px) a float32 pass of both levels with explicit attention, 256 patches at a time;
every map is enlarged to the region's 4096 px before ranks within each patch are taken, averaged, coloured and blended, one image after the other.
Ours: bfloat16 where it is clearly faster, level 1 for two of the shifts alone, scores at the grain of tokens until an image is drawn. Both draw 4096-px images into memory; writing files is left out.
The floor: the operations of two passes of level 1 over the measured rate of large matrix products.
"""
import argparse, json, platform, time
from pathlib import Path
import numpy as np, torch
from region import explicit_attention, matmul_rate
from hipt_nb.attention import coverage, factorised, overlay, region_scores
from hipt_nb.hipt import create_hipt, cut_patches
from hipt_nb.vit import flops

OFFSETS = 0, 128, 256, 384

def rank(a):
    from scipy.stats import rankdata
    return rankdata(a, 'average').reshape(a.shape)/a.size

def published_pass(hipt, x, offset):
    "Scores of one shift, every map enlarged to pixels and ranked there"
    big = torch.ones(1, 3, 4096+offset, 4096+offset); big[..., :4096, :4096] = x
    patches = cut_patches(big[..., offset:, offset:][..., :4096, :4096], 256)[0].flatten(0, 1)
    tokens = hipt.level1(patches)
    a1 = hipt.level1.attention(patches)[:, :, 0, 1:].reshape(-1, 6, 16, 16)
    grid = tokens.T.reshape(1, -1, 16, 16)
    hipt.level2(grid)
    a2 = hipt.level2.attention(grid)[0, :, 0, 1:].reshape(6, 16, 16)
    px = lambda a, n: a.repeat(n, -2).repeat(n, -1)
    one = lambda h: np.block([[rank(px(a1[r*16+c, h].numpy(), 16)) for c in range(16)] for r in range(16)])
    return np.stack([one(h) for h in range(6)]), np.stack([rank(px(a.numpy(), 256)) for a in a2])

def shifted(a, o):
    out = np.zeros_like(a); out[..., o:, o:] = a[..., :4096-o, :4096-o]
    return out

def published(hipt, x, image, shifts=OFFSETS, images=54):
    "Seconds of (passes, images); fewer of each may be asked for, and their time scaled, since all passes and all images cost the same"
    t0 = time.perf_counter()
    with explicit_attention(): passes = [published_pass(hipt, x, o) for o in shifts]
    n1, n2 = (sum(shifted(np.ones((4096, 4096), np.float32), o) for o in os) for os in ((0, 128), OFFSETS))
    s1 = sum(shifted(p[0], o) for p, o in zip(passes[:2], OFFSETS))/n1
    s2 = sum(shifted(p[1], o) for p, o in zip(passes, OFFSETS))/n2
    t1 = time.perf_counter()
    for k in range(images): overlay(image, (s1[k%6]*2*n1+s2[k%6]*n2)/(2*n1+n2))
    return t1-t0, time.perf_counter()-t1

def ours(hipt, image):
    t, p = region_scores(hipt, image, OFFSETS, 'rank', padding='published', cell=16)
    both = factorised(t, p, 'mean', (2*coverage(4096, 4096, (0, 128), padding='published'), coverage(4096, 4096, OFFSETS, padding='published')))
    images = [*t, *p, *(np.where(a>.5, a, np.nan) for a in t), *both.reshape(-1, 256, 256)]
    for a in images: overlay(image, a)
    return len(images)

def slide_costs(hipt, image, regions):
    "Seconds to embed some regions, to attend to them in one pass, and with four shifts"
    times = {}
    for name, one in dict(embed=lambda: hipt(image), attend=lambda: region_scores(hipt, image), attend_4_shifts=lambda: region_scores(hipt, image, OFFSETS)).items():
        one(); t = time.perf_counter()
        for _ in range(regions): one()
        times[name] = time.perf_counter()-t
    return times

@torch.inference_mode()
def main(out, quick):
    image = np.random.default_rng(0).integers(0, 256, (4096, 4096, 3), dtype=np.uint8)
    slow, fast = create_hipt('hipt-4k'), create_hipt('hipt-4k', dtype='auto')
    n_shifts, n_images = (1, 4) if quick else (4, 54)
    passes, images = published(slow, slow.normalise(image), image, OFFSETS[:n_shifts], n_images)
    t_pub = passes*4/n_shifts + images*54/n_images
    ts = []
    for _ in range(1 if quick else 3): t = time.perf_counter(); count = ours(fast, image); ts.append(time.perf_counter()-t)
    t_ours = float(np.median(ts))
    costs = slide_costs(fast, image, 1 if quick else 4)
    dtype = torch.bfloat16 if fast.dtype=='auto' and __import__('hipt_nb.hipt', fromlist=['x']).pick_dtype('auto', 'cpu')==torch.bfloat16 else torch.float32
    floor = 2*256*flops(fast.level1, 16, 16)/matmul_rate(dtype, torch.device('cpu'))
    res = dict(machine=platform.processor() or platform.machine(), threads=torch.get_num_threads(), arithmetic=str(dtype).split('.')[1], images=count,
        published_s=round(t_pub, 2), published_measured=f'{n_shifts} of 4 passes, {n_images} of 54 images, scaled', ours_s=round(t_ours, 2), times_faster=round(t_pub/t_ours, 1), floor_s=round(floor, 2),
        attend_over_embed=round(costs['attend']/costs['embed'], 2), attend_4_shifts_over_embed=round(costs['attend_4_shifts']/costs['embed'], 2))
    print(json.dumps(res, indent=1))
    if out: Path(out).write_text(json.dumps(res, indent=1)+'\n')

if __name__=='__main__':
    p = argparse.ArgumentParser()
    p.add_argument('--out', default=Path(__file__).with_name('results')/'maps-cpu.json')
    p.add_argument('--quick', action='store_true', help='one shift and four images of the published way, scaled up')
    main(**vars(p.parse_args()))
