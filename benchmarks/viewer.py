"""Tiles of a live viewer page of a slide, asked for by several clients at once: time of each at the 95th percentile,
and the server's memory over all of them.

The server runs in a process of its own, so that its memory is its own; tiles are drawn at random from all levels,
half of them from the finest."""
import argparse, http.client, json, multiprocessing, os, platform, threading, time
from pathlib import Path
import numpy as np

def serve_slide(path, pipe, mpp):
    import tempfile
    from hipt_nb.slide import Slide
    from hipt_nb.viewer import PageSource, build_viewer, reopen, serve, tile_levels
    with tempfile.TemporaryDirectory() as d, Slide(path, mpp) as s:
        page = build_viewer(s, [], Path(d)/'page', live=True).parent
        server = serve(page, block=False, sources={'': PageSource(reopen(s))})
        pipe.send((server.server_port, tile_levels(*s.dimensions, max_side=None)))
        pipe.recv()
        server.shutdown()

def memory(pid): return int(next(l.split()[1] for l in open(f'/proc/{pid}/status') if l.startswith('VmRSS')))/1024

def client(port, levels, n, seed, times, rss, pid):
    rng, c = np.random.default_rng(seed), http.client.HTTPConnection('127.0.0.1', port)
    for _ in range(n):
        k = len(levels)-1 if rng.random()<.5 else int(rng.integers(len(levels)))
        w, h, _ = levels[k]
        t = time.perf_counter()
        c.request('GET', f'/tiles/{k}/{rng.integers(-(-w//512))}_{rng.integers(-(-h//512))}.jpg')
        r = c.getresponse(); body = r.read()
        times.append(time.perf_counter()-t); rss.append(memory(pid))
        assert r.status==200 and body[:2]==b'\xff\xd8'

def main(slide, mpp, clients, tiles, out):
    here, there = multiprocessing.Pipe()
    p = multiprocessing.get_context('spawn').Process(target=serve_slide, args=(slide, there, mpp)); p.start()
    port, levels = here.recv()
    times, rss = [], []
    threads = [threading.Thread(target=client, args=(port, levels, tiles//clients, i, times, rss, p.pid))
               for i in range(clients)]
    for t in threads: t.start()
    for t in threads: t.join()
    here.send('stop'); p.join()
    n = len(rss)//4
    res = dict(slide=Path(slide).name, size=levels[-1][:2], clients=clients, tiles=len(times),
               median_ms=round(1e3*float(np.median(times)), 1), p95_ms=round(1e3*float(np.quantile(times, .95)), 1),
               memory_mb=dict(second_quarter=round(float(np.median(rss[n:2*n]))),
                              last_quarter=round(float(np.median(rss[-n:])))),
               cores=os.cpu_count(), machine=platform.processor() or platform.machine())
    print(json.dumps(res, indent=1))
    if out: Path(out).write_text(json.dumps(res, indent=1)+'\n')

if __name__=='__main__':
    a = argparse.ArgumentParser()
    a.add_argument('slide'); a.add_argument('--mpp', type=float); a.add_argument('--clients', type=int, default=4)
    a.add_argument('--tiles', type=int, default=2000)
    a.add_argument('--out', default=Path(__file__).with_name('results')/'viewer-cpu.json')
    main(**vars(a.parse_args()))
