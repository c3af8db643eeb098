"""What all measurements of speed share: sides take turns in one run, ratios are of pairs, ceilings are in the same run.

A ratio is taken within a round, in which every way has its turn, so that other work on the machine disturbs both sides
alike; its median and range over the rounds are kept, and the ratio of the shortest times. `CLOCK=cpu` counts the time
of the processor, of this process and of those that it waited for, in place of the clock on the wall: for one thread on
a machine with other work."""
import argparse, json, os, platform, resource, subprocess, sys, time
from pathlib import Path
from statistics import median
import torch

RESULTS = Path(__file__).parent/'results'
QUIET_CLOCK = os.environ.get('CLOCK', 'wall')

def clock():
    "Seconds of the chosen clock"
    if QUIET_CLOCK!='cpu': return time.perf_counter()
    used = [resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime+u.ru_stime for u in used)

def timed(fn, device='cpu'):
    "Seconds of one run, and what it gave"
    wait = torch.cuda.synchronize if torch.device(device).type=='cuda' else lambda: None
    wait()
    start = clock()
    out = fn()
    wait()
    return clock()-start, out

def alternate(ways, rounds, device='cpu', warm=1, seldom=()):
    "Seconds of each way by round, all taking turns; those that are slow and named `seldom` warm up once, run twice"
    times = {k: [] for k in ways}
    for i in range(warm+rounds):
        for k,fn in ways.items():
            if k in seldom and (i<warm-1 or len(times[k])==2): continue
            t,_ = timed(fn, device)
            if i>=warm: times[k].append(t)
    return times

def ratio(a, b, factor=1.):
    "`factor*a/b` of two ways by round: median, range and that of the shortest times"
    pairs = [factor*x/y for x,y in zip(a, b)]
    return dict(median=round(median(pairs), 3), low=round(min(pairs), 3), high=round(max(pairs), 3),
                best=round(factor*min(a)/min(b), 3), rounds=len(pairs))

PRODUCT = {'cuda': (8192, 20), 'cpu': (2048, 1)}   # side of large matrices, products at a time

def products(name, shapes, times, device):
    "A function that multiplies matrices of these shapes in an arithmetic, and how many operations that takes"
    def pair(m, k, n):
        if name!='int8':
            dtype = getattr(torch, name)
            return torch.randn(m, k, device=device, dtype=dtype), torch.randn(k, n, device=device, dtype=dtype)
        return [torch.randint(-127, 128, s, dtype=torch.int8, device=device) for s in ((m, k), (n, k))]
    pairs = [pair(*s) for s in shapes]*times
    one = (lambda a,b: torch._int_mm(a, b.T)) if name=='int8' else torch.matmul
    return (lambda: [one(a, b) for a,b in pairs]), times*sum(2*m*k*n for m,k,n in shapes)

def ceiling(name, device='cpu', batch=None):
    "The same for large matrices; with `batch` for those of as many patches in a block of level 1"
    side,times = PRODUCT[torch.device(device).type]
    if batch is None: return products(name, [(side,)*3], times, device)
    N = batch*257
    return products(name, [(N,384,1152), (N,384,384), (N,384,1536), (N,1536,384)], times, device)

def share_of_floor(rate, way, needed):
    "Share of the time of a way that its operations take at the rate of `(times, operations)` of the same rounds"
    times,done = rate
    return ratio(times, way, needed/done)

def cpu_name():
    "What a processor has for matrices"
    has = lambda name: bool(getattr(torch.cpu, name, bool)())
    if has('_is_amx_tile_supported'): return 'amx'
    if has('_is_avx512_bf16_supported'): return 'avx512bf16'
    if has('_is_vnni_supported'): return 'avx512vnni'
    return torch.backends.cpu.get_cpu_capability().lower()

def machine(device='cpu'):
    "What a result was measured on"
    cpu = f'{platform.machine()} CPU ({cpu_name()}), {torch.get_num_threads()} threads'
    on = torch.cuda.get_device_name() if torch.device(device).type=='cuda' else cpu
    return dict(machine=on, cores=os.cpu_count(), torch=torch.__version__, clock=QUIET_CLOCK)

def peak_gb(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1e6

def alone(file, *args):
    "The last line of JSON that a script prints in a process of its own"
    command = [sys.executable, file, *map(str, args)]
    res = subprocess.run(command, capture_output=True, text=True)
    if res.returncode: sys.exit(f"{' '.join(command)}:\n{res.stderr[-4000:]}")
    return json.loads(res.stdout.splitlines()[-1])

def keep(out, found):
    "Write a result, beside which the one of an earlier run does not stay"
    if not out: return
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    Path(out).write_text(json.dumps(found, indent=1)+'\n')

def arguments(doc, rounds=5):
    "The options that every script has"
    p = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--out', help='JSON file to write')
    p.add_argument('--rounds', type=int, default=rounds, help='how often each side has its turn')
    p.add_argument('--quick', action='store_true', help='smaller inputs, for a machine with other work')
    return p
