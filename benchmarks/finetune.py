"""Five folds of slide-level training on 500 bags of 40 regions: the published way and ours, on the same made-up
features.

The published way, from its description: one bag at a time, read from disk in every epoch, a forward and a backward
pass and an update for each, loss divided by 32, then the validation bags one by one. Ours: features files read once,
padded batches with masks, exact accumulation, training and validation bags scored after each epoch, models and
predictions written; two folds side by side. The published loop trains as many folds as asked, one after the other,
and its time is scaled to all; AUCs are compared on the test patients of those folds, as a paired difference."""
import argparse, json, platform, tempfile, time
from pathlib import Path
import numpy as np, pandas as pd, torch
from torch.nn import functional as F
from hipt_nb.core import set_seed
from hipt_nb.run import Run
from hipt_nb.evaluate import patient_folds
from hipt_nb.comparison import compare, fold_auc
from hipt_nb.metrics import prediction_table
from hipt_nb.features import Features, load_bags, write_features
from hipt_nb.finetune import cross_validate
from hipt_nb.slide_models import Dropout, SelfAttention, SlideModel
from hipt_nb.training import BagBatches

CLASSES = ['calm', 'signal']

def make_cohort(run, n, regions, dim=192, seed=0):
    "Features of noise; in every second slide an eighth of the regions carries a signal. Also one `.pt` a slide"
    rng = np.random.default_rng(seed); signal = rng.normal(size=dim); signal *= 3/np.linalg.norm(signal); rows = []
    for i in range(n):
        m = int(rng.integers(regions//2, regions*3//2+1)); x = rng.normal(size=(m,dim)).astype(np.float32)
        x[:m//8] += signal*(i%2); sid = f's{i:03}'
        made_by = dict(encoder_name='made-up', level1_sha256='', min_tissue=.5)
        write_features(run.features('made-up', sid),
                       Features(sid, np.zeros((m,1,1,4), np.float16), x, np.arange(2*m).reshape(m,2),
                                np.ones((m,1,1), np.float16), made_by))
        torch.save(torch.from_numpy(x), run.root/f'{sid}.pt')
        rows.append(dict(slide_id=sid, patient=sid, label=CLASSES[i%2]))
    return pd.DataFrame(rows)

def plain_dropout(model):
    "torch's own dropout and attention, as the published code has them"
    for part in model.modules():
        if isinstance(part, SelfAttention): part.__class__ = torch.nn.MultiheadAttention
        if isinstance(part, Dropout): part.__class__ = torch.nn.Dropout
    return model

def published(run, df, fold, k, epochs, seed=1):
    "One fold; the seconds, the predictions of its test slides"
    y = dict(zip(df.slide_id, df.label.map(CLASSES.index)))
    read = lambda s: torch.load(run.root/f'{s}.pt', weights_only=True)[None]
    set_seed(seed); model = plain_dropout(SlideModel())
    opt = torch.optim.Adam(model.parameters(), lr=2e-4, weight_decay=1e-5)
    w = np.array([1/sum(y[s]==y[t] for t in fold['train']) for s in fold['train']]); rng = np.random.default_rng(seed)
    start = time.perf_counter()
    for _ in range(epochs):
        model.train()
        for s in rng.choice(fold['train'], len(w), p=w/w.sum()):
            (F.cross_entropy(model(read(s)), torch.tensor([y[s]]))/32).backward(); opt.step(); opt.zero_grad()
        model.eval()
        with torch.no_grad(): [model(read(s)) for s in fold['val']]
    seconds = time.perf_counter()-start
    with torch.no_grad(): probs = torch.cat([model(read(s)).softmax(-1) for s in fold['test']]).numpy()
    return seconds, prediction_table(fold['test'], fold['test'], [y[s] for s in fold['test']], probs, CLASSES, k)

def ours(run, df, folds, epochs, workers):
    "Seconds in all, seconds spent on bags (in this process), predictions"
    waited, batch = [], BagBatches.batch
    def timed(self, at): t = time.perf_counter(); b = batch(self, at); waited.append(time.perf_counter()-t); return b
    BagBatches.batch = timed
    start = time.perf_counter()
    bags = load_bags(run, df, 'made-up'); loading = time.perf_counter()-start
    pred = cross_validate(bags, folds, run.root/f'ours{workers}', CLASSES, epochs=epochs, workers=workers)
    BagBatches.batch = batch
    return time.perf_counter()-start, loading+sum(waited), pred

def main(slides, regions, epochs, folds, published_folds, workers, out):
    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory() as d:
        run = Run(d); df = make_cohort(run, slides, regions); splits = patient_folds(df, folds)
        done = [published(run, df, s, k, epochs) for k,s in enumerate(splits[:published_folds])]
        t_pub, theirs = sum(t for t,_ in done)/len(done), pd.concat([p for _,p in done])
        t_one, t_bags, _ = ours(run, df, splits[:1], epochs, 1)
        t_ours, _, pred = ours(run, df, splits, epochs, workers)
    same = pred[pred.fold<len(done)]
    cpu = f'{platform.machine()} CPU ({torch.backends.cpu.get_cpu_capability()}), {torch.get_num_threads()} threads'
    res = dict(machine=cpu, torch=torch.__version__, slides=slides, regions=regions, epochs=epochs, folds=folds,
        published_folds_measured=len(done), folds_side_by_side=workers,
        times_faster_than_published=round(t_pub*folds/t_ours, 2), one_fold_alone_times_faster=round(t_pub/t_one, 2),
        loading_share=round(t_bags/t_one, 3),
        auc_published=str(fold_auc(theirs)), auc_ours=str(fold_auc(same)), auc_difference=str(compare(same, theirs)))
    print(json.dumps(res, indent=1))
    if out: Path(out).parent.mkdir(parents=True, exist_ok=True); Path(out).write_text(json.dumps(res, indent=1)+'\n')

if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--slides', type=int, default=500)
    p.add_argument('--regions', type=int, default=40); p.add_argument('--epochs', type=int, default=20)
    p.add_argument('--folds', type=int, default=5)
    p.add_argument('--published-folds', type=int, default=5, help='folds that the published loop trains')
    p.add_argument('--workers', type=int, default=2, help='folds of ours at a time')
    p.add_argument('--out', default='benchmarks/results/finetune-cpu.json')
    main(**vars(p.parse_args()))
