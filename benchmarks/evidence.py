"""All evidence that arrangement is learned, by one command: mosaics of real patches, real neighbourhoods, the
positive control, the demo.
Each is run as by its own script, goes on where it was stopped, and runs nothing twice. Prints all tables, and the time
of each.

    python benchmarks/evidence.py --mosaics FOLDER --sections FOLDER --cache FOLDER [--quick]

`--quick` runs one seed of each: the chosen recipe and what is not trained of the mosaics, one seed of the others."""
import argparse, time
from pathlib import Path
import cells, demo, mosaics, neighbourhoods

def main(mosaics_of, sections, cache, quick):
    cache, start, spent = Path(cache), time.time(), {}
    cache.mkdir(parents=True, exist_ok=True)
    def timed(what, run, *args):
        begun = time.time()
        run(*args)
        spent[what] = time.time()-begun
    features = cache/'mosaics.npz'
    if not features.exists(): timed('features', mosaics.features, mosaics_of, features)
    timed('mosaics', mosaics.test, features, quick)
    for n,steps in dict.fromkeys((n, steps) for n,_,steps in mosaics.EVIDENCE): mosaics.table(n, steps, test=True)
    mosaics.aims_table()
    seeds = [0] if quick else [0, 1, 2]
    timed('neighbourhoods', neighbourhoods.main, sections, cache/'sections.npz', neighbourhoods.ARMS, seeds,
          mosaics.STEPS)
    neighbourhoods.table()
    timed('positive control', cells.main, quick)
    cells.table()
    timed('demo', demo.main, demo.RESULTS, demo.TEST[:1] if quick else demo.TEST, False, [], False, False, None)
    for what,seconds in spent.items(): print(f'{what}: {seconds/60:.0f} min')
    print(f'in all: {(time.time()-start)/60:.0f} min')

if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--mosaics', dest='mosaics_of', required=True, help='folder of LC25000: labels.csv and its files')
    p.add_argument('--sections', required=True, help='folder with B4.jpg, C2.jpg and their masks of tissue')
    p.add_argument('--cache', required=True, help='folder for features')
    p.add_argument('--quick', action='store_true', help='one seed of each')
    main(**vars(p.parse_args()))
