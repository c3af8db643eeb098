"""One step of DINO at each level of hipt-4k: the published way, the same under autocast, and ours, side by side.

Level 1: ViT-S/16, 2 views of 224 px and 8 of 96, 65,536 prototypes, steps of 4 and of 16 patches (64 and 256 on a
GPU). Level 2: grids of 16 × 16 cells, 2 views of 14 × 14 and 8 of 6 × 6, steps of 64 regions (256 too on a GPU). The
published way, written from its description: float32, explicit attention and all tokens in the last block; prototypes
are normalised as a matrix in every pass; cross-entropies pair by pair; each parameter is clipped, updated and
averaged on its own. Its views are made beforehand, as its workers would make them. Autocast is the same step with
the networks in half precision. Ours: `dino_learner` with the recipe `paper`, making of the views and log included,
in the arithmetic that `pretrain` would choose on this machine, and in float32. The floor: the operations that a step
cannot do without (the last block for the class token alone) over the measured rate of large matrix products in the
same arithmetic. Data: the same training on numbers that are there already, and on patches streamed from slides (a
phantom, and `--slide` if given) or grids from features files, nothing kept in memory. With `--published` and a clone
of facebookresearch/dino, the published functions themselves are timed beside their description, at level 1 with
steps of 4."""
import ast, gc, json, math, tempfile, time, types, warnings
from functools import partial
from pathlib import Path
import numpy as np, torch
from torch import nn
from torch.nn import functional as F
from fastai.callback.core import Callback
from hipt_nb.dino import DINOHead, RECIPES, drop_paths
from hipt_nb.features import Features, write_features
from hipt_nb.precision import pick_dtype
from hipt_nb.loop import dino_learner, param_groups
from hipt_nb.pretrain import Pretraining
from hipt_nb.phantom import make_slide
from hipt_nb.samples import GridSource, PatchSource, SampleOrder, Sampler, Stream
from hipt_nb.resume import readers
from hipt_nb.slide import Slide
from hipt_nb.tiling import tile_slide, write_tiles
from hipt_nb.views import grid_views, image_views
from hipt_nb.vit import flops, vit256, vit4k
from region import explicit_attention
from timing import alone, alternate, arguments, ceiling, keep, machine, peak_gb, ratio, share_of_floor

warnings.filterwarnings('ignore', message='.*weight_norm.*')
PAPER, LEVELS = RECIPES['paper'], {1: vit256, 2: vit4k}
SIZES = {'cpu': {1: (4, 16), 2: (64,)}, 'cuda': {1: (64, 256), 2: (64, 256)}}
# steps timed at once: a GPU works on while the next step is prepared
ROUND = {'cpu': lambda n: 1, 'cuda': lambda n: 1280//n}

def batch_of(level, n):
    "Patches, or grids and masks; and sample numbers"
    x = torch.randint(0, 256, (n, 3, 256, 256), dtype=torch.uint8) if level==1 else torch.randn(n, 384, 16, 16)
    return (x, *([torch.ones(n, 16, 16, dtype=torch.bool)] if level==2 else []), torch.arange(n))

class TwoNets(nn.Module):
    "Backbone and head, crops of one size together"
    def __init__(self, vit, whole):
        super().__init__()
        self.backbone, self.head, self.whole = vit, DINOHead(vit.embed_dim), whole
        self.head.last_layer = nn.utils.weight_norm(nn.Linear(256, PAPER.out_dim, bias=False))
        self.head.last_layer.weight_g.data.fill_(1); self.head.last_layer.weight_g.requires_grad = False
    def forward(self, views):
        ends = [i for i in range(1, len(views)+1) if i==len(views) or views[i].shape!=views[i-1].shape]
        run = (lambda o: self.backbone.tokens(o)[:,0]) if self.whole else self.backbone
        return self.head(torch.cat([run(torch.cat(views[a:b])) for a,b in zip([0]+ends, ends)]))

class Published:
    "A published step from its description, in float32 or under autocast"
    def __init__(self, level, dtype, device, backbone=None):
        vit = backbone or (lambda p: drop_paths(LEVELS[level](), p))
        self.student = TwoNets(vit(.1), backbone is None).to(device)
        self.teacher = TwoNets(vit(0.), backbone is None).to(device).requires_grad_(False)
        self.teacher.load_state_dict(self.student.state_dict())
        self.opt = torch.optim.AdamW([dict(params=g) for g in param_groups(self.student)], lr=1e-4)
        self.center, self.device, self.dtype = torch.zeros(1, PAPER.out_dim, device=device), device, dtype
        self.scaler = torch.amp.GradScaler(device.type, enabled=dtype==torch.float16)

    def loss(self, s, t):
        s, t = (s/.1).chunk(10), F.softmax((t-self.center)/.04, -1).detach().chunk(2)
        terms = [(-q*F.log_softmax(s[v], -1)).sum(-1).mean() for i,q in enumerate(t) for v in range(10) if v!=i]
        return sum(terms)/len(terms)

    def clip(self):
        for p in self.student.parameters():
            if p.grad is not None and (c := 3/(p.grad.norm()+1e-6))<1: p.grad.mul_(c)

    def step(self, views):
        with explicit_attention(), torch.autocast(self.device.type, self.dtype, enabled=self.dtype!=torch.float32):
            t = self.teacher(views[:2]); l = self.loss(self.student(views), t)
        with torch.no_grad(): self.center = self.center*.9 + t.float().mean(0, keepdim=True)*.1
        assert math.isfinite(l.item())
        self.opt.zero_grad(); self.scaler.scale(l).backward(); self.scaler.unscale_(self.opt)
        self.clip(); self.scaler.step(self.opt); self.scaler.update()
        with torch.no_grad():
            for q,k in zip(self.student.parameters(), self.teacher.parameters()): k.mul_(.996).add_(.004*q)

def published_functions(repo, file, *names, **space):
    "Parts of a file of a clone, without its imports"
    src = Path(repo, file).read_text()
    space = dict(np=np, torch=torch, nn=nn, F=F, math=math, partial=partial,
                 trunc_normal_=nn.init.trunc_normal_, **space)
    exec(compile(ast.Module([n for n in ast.parse(src).body if getattr(n, 'name', None) in names], []), file, 'exec'),
         space)
    return space

class PublishedCode(Published):
    "The same step with ViT, loss and clipping of the published repository"
    def __init__(self, repo, dtype, device):
        make = published_functions(repo, 'vision_transformer.py', 'drop_path', 'DropPath', 'Mlp', 'Attention', 'Block',
                                   'PatchEmbed', 'VisionTransformer', 'vit_small')['vit_small']
        super().__init__(1, dtype, device, lambda p: make(patch_size=16, drop_path_rate=p))
        alone = types.SimpleNamespace(all_reduce=lambda t: t, get_world_size=lambda: 1)
        self.of_repo = published_functions(repo, 'main_dino.py', 'DINOLoss',
                                           dist=alone)['DINOLoss'](PAPER.out_dim, 10, .04, .04, 0, 1).to(device)
        self.clip_gradients = published_functions(repo, 'utils.py', 'clip_gradients')['clip_gradients']
    def loss(self, s, t): return self.of_repo(s, t, 0)
    def clip(self): self.clip_gradients(self.student, 3.)

class Clock(Callback):
    "When steps end"
    order = 90
    def __init__(self): self.ends = []
    def after_batch(self): self.ends.append(time.perf_counter())

class Ours:
    "Our step, as `pretrain` takes it"
    def __init__(self, level, dtype, device, **how):
        precision = str(dtype).removeprefix('torch.')
        t = Pretraining(recipe=PAPER, batch_size=64, device=device, precision=precision, **how)
        self.learn = dino_learner([], LEVELS[level](), t, steps=10**5, cbs=[Clock()])
    def fit(self, batches):
        "Train on batches; when each step ended"
        self.learn.dls.loaders[0], self.learn.clock.ends = batches, []
        self.learn.fit(1)
        return self.learn.clock.ends

def make_way(name, level, dtype, device, batch, repo=None, graphs=True):
    "A function that takes one step"
    if name.startswith('ours'):
        own, batch = Ours(level, dtype, device, compile='compiled' in name,
                          graphs=graphs), [*(o.to(device) for o in batch[:-1]), batch[-1].numpy()]
        return lambda k=1: own.fit([batch]*k)
    way = PublishedCode(repo, dtype, device) if name=='published code' else Published(level, dtype, device)
    views = image_views(batch[0], batch[-1], 0, PAPER.images) if level==1 else grid_views(*batch, 0, PAPER.grids)[0]
    views = [v.to(device) for v in views]
    return lambda k=1: [way.step(views) for _ in range(k)]

def needed(level, batch):
    "Operations of a step that are matrix products"
    vit, sides = LEVELS[level](), ((14, 2), (6, 8))
    once = {n: flops(vit, n, n, only_class=True)*k for n,k in sides}
    head = 2*sum(p.numel() for p in DINOHead(vit.embed_dim).parameters() if p.ndim>1 and p.shape[1]>1)
    return batch*(3*sum(once.values()) + once[14] + head*(3*10+2))

def steps_of(level, n, device, dtypes, rounds, repo, graphs):
    "Seconds of a step in each way, and of ceilings; larger steps than usual in half precision alone, for the memory"
    batch, usual = batch_of(level, n), device.type=='cpu' or n==SIZES['cuda'][level][0]
    ways = {'published': torch.float32, 'ours in float32': torch.float32} if usual else {}
    if dtypes['half'] is not None: ways.update({'published under autocast': dtypes['half'], 'ours': dtypes['ours']})
    if device.type=='cuda' and usual: ways['ours compiled'] = dtypes['ours']
    if repo and level==1 and n==SIZES[device.type][1][0]:
        ways['published code'] = dtypes['half'] if device.type=='cuda' else torch.float32
    fns, k = {w: make_way(w, level, d, device, batch, repo, graphs) for w,d in ways.items()}, ROUND[device.type](n)
    fns, done = {w: partial(fn, k) for w,fn in fns.items()}, {}
    for d in dict.fromkeys((torch.float32, dtypes['ours'])): fns[d], done[d] = ceiling(name_of(d), device)
    times = alternate(fns, rounds, device, warm=1 if k==1 else 2)    # the first steps make memory, and are recorded
    return {w: [o/k for o in v] if w in ways else v for w,v in times.items()}, done

def name_of(dtype): return str(dtype).removeprefix('torch.')

def told(level, n, t, done, device):
    "A row of the table"
    best = 'ours compiled' if 'ours compiled' in t else 'ours' if 'ours' in t else 'ours in float32'
    row, over = dict(level=level, batch=n), lambda a,b: {} if not {a, b}<=t.keys() else ratio(t[a], t[b])
    row |= dict(times_faster_than_published=over('published', best), in_float32=over('published', 'ours in float32'),
                times_faster_than_autocast=over('published under autocast', best),
        compiled_over_not=over('ours', 'ours compiled'),
        published_code_over_its_description=over('published code',
                                                 'published under autocast' if device.type=='cuda' else 'published'))
    row['share_of_floor'] = {name_of(d): share_of_floor((t[d], done[d]), t[k], needed(level, n))
                             for k,d in (('ours in float32', torch.float32), (best, list(done)[-1])) if k in t}
    if device.type=='cuda': row['images_per_second'] = {k: round(n/min(v), 1) for k,v in t.items() if k not in done}
    return {k:v for k,v in row.items() if v!={}}

def peak_memory(name, dtype, device, batch):
    "Highest memory of a process that takes steps of level 1, in GB"
    return alone(__file__, '--device', device, '--memory', name, name_of(dtype), batch)

def only_steps(device, name, dtype, batch):
    step = make_way(name, 1, getattr(torch, dtype), device, batch_of(1, int(batch)))
    step(3)
    print(json.dumps(round(torch.cuda.max_memory_allocated()/1e9 if device.type=='cuda' else peak_gb(), 2)))

def sources(folder, slide):
    "What is streamed at level 1 and 2"
    slides = []
    for path in [make_slide(folder/'phantom.tif', 'glandular', seed=0, size=4096), *([slide] if slide else [])]:
        with Slide(path) as s: write_tiles(folder/f'{s.name}.h5', tile_slide(s, region_size=1024))
        slides.append((path, folder/f'{s.name}.h5'))
    r, files = np.random.default_rng(0), [folder/f'grids{i}.h5' for i in range(3)]
    for p in files:
        write_features(p, Features(p.stem, r.normal(size=(80,16,16,384)).astype(np.float16), None,
                                   np.zeros((80,2), int), np.ones((80,16,16), np.float16),
                                   dict(level1_sha256='', mean=[.5]*3, std=[.5]*3, patch_size=256, min_tissue=.1)))
    return {1: PatchSource(slides, cache_mb=0), 2: GridSource(files, cache_mb=0)}

def share_of_data(level, source, n, device, dtype, rounds, steps):
    "Step time with streamed samples over that with samples that are there, taken in turn"
    *xs, samples = batch_of(level, n)
    own, there = Ours(level, dtype, device), [[*(o.to(device) for o in xs), samples.numpy()]]*(steps+1)
    own.fit(there[:4])
    stream = Stream(source, SampleOrder(source.counts), Sampler(10**7, n), steps+1, workers=readers(device),
                    device=device)
    def between(batches):
        ends = own.fit(batches)
        return (ends[-1]-ends[0])/steps
    gaps = {'there': [], 'streamed': []}
    for _ in range(rounds):
        gaps['there'].append(between(there))
        gaps['streamed'].append(between(stream))
        stream.it += steps+1
    return ratio(gaps['streamed'], gaps['there'])

def all_steps(a, device, dtypes):
    "A row for each level and size of step"
    for level,sizes in SIZES[device.type].items():
        for n in sizes:
            if a.only and f'{level}x{n}' not in a.only: continue
            times, done = steps_of(level, n, device, dtypes, a.rounds, a.published, not a.no_graphs)
            yield told(level, n, times, done, device)
            gc.collect()
            if device.type=='cuda': torch.cuda.empty_cache()

def main(a):
    device = torch.device(a.device)
    if a.memory: return only_steps(device, *a.memory)
    ours = pick_dtype('auto', device)
    # float16 is what the published code uses on a GPU; a CPU that is slow in bfloat16 is spared it
    dtypes = dict(ours=ours, half=None if ours==torch.float32 else torch.float16 if device.type=='cuda' else ours)
    res = machine(device) | dict(ours_in=name_of(ours), bfloat16_pays_here=ours!=torch.float32, steps=[])
    for row in all_steps(a, device, dtypes):
        print(row, flush=True)
        res['steps'].append(row)
        keep(a.out, res)
    if a.quick or a.only: return
    with tempfile.TemporaryDirectory() as d:
        sizes, steps = {'cpu': ((4, 16), 6), 'cuda': ((64, 64), 60)}[device.type]
        res['streamed_over_synthetic_step'] = {
            f'level {level}': share_of_data(level, source, sizes[level-1], device, ours, 3, steps)
            for level,source in sources(Path(d), a.slide).items()}
    n, kind = (8, torch.float32) if device.type=='cpu' else (64, torch.float16)
    res['peak_memory_gb'] = {k: peak_memory(k, d, device, n) for k,d in {'published': kind, 'ours': ours}.items()}
    keep(a.out, res)
    print(json.dumps(res, indent=1))

if __name__=='__main__':
    p = arguments(__doc__, rounds=3)
    p.add_argument('--device', default='cpu')
    p.add_argument('--slide', help='a real slide to stream from, beside the phantom')
    p.add_argument('--published', help='a clone of facebookresearch/dino, to time its own functions too')
    p.add_argument('--no-graphs', action='store_true', help='do not record passes on a GPU')
    p.add_argument('--only', nargs='*', help='steps to measure, such as 1x4 and 2x64: level and batch')
    p.add_argument('--memory', nargs=3, metavar=('WAY', 'DTYPE', 'BATCH'),
                   help='only print the peak memory of a process that takes steps')
    main(p.parse_args())
