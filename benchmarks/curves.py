"""Cost of level 1 of hipt-4k by regions, batch and threads; all sizes of a curve take turns.

Regions: time for n regions of 1,024 px over n times that of one (1: no cost of many). Batch: time for a patch over that
of the batch that `tune` chose. Threads: how many times faster than one thread (with `CLOCK=cpu`, which adds up the time
of threads, the share of their time that is of use instead)."""
import json, os
import torch
from hipt_nb.hipt import create_hipt
from hipt_nb.precision import pick_dtype
from timing import QUIET_CLOCK, alternate, arguments, keep, machine, ratio

def by_regions(hipt, counts, rounds):
    x = torch.randint(0, 256, (1, 1024, 1024, 3), dtype=torch.uint8)
    t = alternate({n: lambda n=n: [hipt(x) for _ in range(n)] for n in counts}, rounds)
    return {n: ratio(t[n], t[1], 1/n) for n in counts}

def by_batch(hipt, sizes, rounds):
    x = torch.randint(0, 256, (1, 2048, 2048, 3), dtype=torch.uint8)
    best = hipt.batch_size
    sizes = sorted({*sizes, best})
    t = alternate({n: lambda n=n: hipt.patch_tokens(x, batch_size=n) for n in sizes}, rounds)
    return dict(chosen=best, time_over_that_of_the_chosen={n: ratio(t[n], t[best]) for n in sizes})

def by_threads(hipt, counts, rounds):
    x,before = torch.randint(0, 256, (1, 1024, 1024, 3), dtype=torch.uint8), torch.get_num_threads()
    def run(n):
        torch.set_num_threads(n)
        hipt(x)
    t = alternate({n: lambda n=n: run(n) for n in counts}, rounds)
    torch.set_num_threads(before)
    return {n: ratio(t[1], t[n]) for n in counts}

@torch.inference_mode()
def main(a):
    name = str(pick_dtype('auto', torch.device('cpu'))).removeprefix('torch.')
    hipt = create_hipt('hipt-4k', precision=name)
    hipt.tune()
    hipt = hipt.frozen()
    regions, sizes = ((1, 2, 4), (1, 4, 16, 64)) if a.quick else ((1, 2, 4, 8, 16, 32), (1, 2, 4, 8, 16, 32, 64))
    cores = os.cpu_count()
    threads = sorted({1, *[2**i for i in range(1, 8) if 2**i<=cores], cores})
    what = 'share_of_threads_time_of_use' if QUIET_CLOCK=='cpu' else 'times_faster_than_one_thread'
    res = machine() | dict(arithmetic=name, time_for_a_region_over_that_of_one=by_regions(hipt, regions, a.rounds),
                           batch=by_batch(hipt, sizes, a.rounds), **{what: by_threads(hipt, threads, a.rounds)})
    print(json.dumps(res, indent=1))
    keep(a.out, res)

if __name__=='__main__': main(arguments(__doc__).parse_args())
