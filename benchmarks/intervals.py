"""Coverage of the confidence intervals on simulated cross-validated studies: scores are drawn, nothing is trained.

    python benchmarks/intervals.py auc|paired|metrics|outcomes|c-index [--studies 2000]   # replaces its rows

`above` is the share of studies whose true value lies above the interval, `below` below it; .025 each would be exact.
The constants of the method (weight of the prior 8, skew 1/4, 1/2 added before the arcsine, t with 2/rate degrees of
freedom, and those of the paired difference) were chosen on the score models in TUNED with other random numbers; `harsh`
was shown but left out of that choice; `heavy` and `tied` were added afterwards, so they are the independent check."""
import os; os.environ.setdefault('OMP_NUM_THREADS', '1')
import argparse, time
from functools import partial
from itertools import product
from pathlib import Path
import numpy as np, pandas as pd
from scipy.special import log_ndtr
from scipy.stats import norm
from hipt_nb.intervals import class_rate, estimate, interval, jackknife_covariance, jackknife_strata
from hipt_nb.intervals import pair_rate, paired_interval
from hipt_nb.metrics import auc, average_precision, balanced_accuracy, f1, nanmean
from hipt_nb.outcomes import correlation_rate, mae, quadratic_kappa, r2, spearman
from hipt_nb.survival import c_index

SEED = 20261127
SIZES, SHARES, FOLDS, AUCS = (12,18,24,40,80,200), (.5,.2), (3,5), (.5,.6,.7,.8,.9,.95,.99)
TUNED, UNSEEN = ('binormal','unequal','skewed','slides'), ('harsh','heavy','tied')
MODELS = TUNED+UNSEEN
RESULTS = Path(__file__).parent/'results'/'intervals.csv'

# -- drawing studies ------------------------------------------------------------------------------------------------

def spread(
    model,   # one of MODELS
    z,       # standard normal numbers
    case,    # of the class
    rng,     # random number generator
):           # the part of a score that is not the class's shift
    """Scores around their class's centre

    `binormal`: normal; `unequal`: the class 1.5 times as wide; `skewed`: the class has an exponential tail towards the
    rest; `slides`: means of 1 to 3 slides; `harsh`: a tail twice as long; `heavy`: Student's t with 3 degrees of
    freedom; `tied`: binormal, rounded in `scores`"""
    if model=='slides': return np.sqrt(.5)*z + np.sqrt(.5/rng.integers(1, 4, z.shape))*rng.standard_normal(z.shape)
    if model=='heavy': return z/np.sqrt(rng.chisquare(3, z.shape)/3)
    if case and model=='unequal': return 1.5*z
    if case and model in ('skewed','harsh'): return (2 if model=='harsh' else 1)*log_ndtr(z)
    return z

def scores(model, mu, z, case, rng):
    s = case*mu + spread(model, z, case, rng)
    return np.round(s) if model=='tied' else s      # about five different values, as the votes of five neighbours

_differences = {}
def shift(model, true, n=2_000_000):
    "How far the class must lie above the rest for this AUC"
    if model in ('binormal','tied'): return np.sqrt(2)*norm.ppf(true)
    if model not in _differences:
        rng = np.random.default_rng(0)
        case, rest = (spread(model, rng.standard_normal(n), c, rng) for c in (True,False))
        _differences[model] = np.sort(case-rest)
    return -np.quantile(_differences[model], 1-true)

def truth_of(model, true):
    "AUC at `shift`: rounding changes it, so there it is summed over the rounded values"
    if model!='tied': return true
    edges = np.arange(-12, 13)+.5
    case, rest = (np.diff(norm.cdf(np.r_[-np.inf, edges, np.inf]-mu)) for mu in (shift(model, true), 0))
    return (case*(np.cumsum(rest)-rest/2)).sum()

def sizes(n, share, folds):
    "Patients of the class and of the rest in each fold, as even as stratified folds are; every fold has both"
    cases = max(round(n*share), folds)
    split = lambda k: np.array([len(a) for a in np.array_split(np.arange(k), folds)])
    return split(cases), split(n-cases)[::-1]

def strata_of(cases, rest):
    folds = np.concatenate([np.repeat(k, m+n) for k,(m,n) in enumerate(zip(cases, rest))])
    labels = np.concatenate([np.r_[np.ones(m,int), np.zeros(n,int)] for m,n in zip(cases, rest)])
    return jackknife_strata(folds, labels)

def fold_parts(pos, neg):
    "AUC of a fold `[studies]`, and with each patient left out `[studies, patients]`"
    pairs = (pos[:,:,None]>neg[:,None,:]) + .5*(pos[:,:,None]==neg[:,None,:])
    whole, by_pos, by_neg = pairs.mean((1,2)), pairs.mean(2), pairs.mean(1)
    without = lambda v: (v.shape[1]*whole[:,None]-v)/(v.shape[1]-1) if v.shape[1]>1 else np.full_like(v, np.nan)
    return whole, np.concatenate([without(by_pos), without(by_neg)], 1)

def left_out(parts):
    "Mean over folds with all patients, then each left out `[studies, 1+patients]`"
    wholes = np.stack([w for w,_ in parts], 1)
    res = [wholes.mean(1, keepdims=True)]
    for k,(_,without) in enumerate(parts):
        others = np.delete(wholes, k, 1)
        gone = others.mean(1, keepdims=True)   # a fold that loses its only patient of a class has no AUC
        res.append(np.where(np.isnan(without), gone, (others.sum(1, keepdims=True)+without)/wholes.shape[1]))
    return np.concatenate(res, 1)

def auc_studies(model, shifts, cases, rest, studies, rng, correlation=.6):
    "Left-out arrays of one model or two (correlated scores) on the same patients"
    parts = [[] for _ in shifts]
    for m,n in zip(cases, rest):
        common = [rng.standard_normal((studies,k)) for k in (m,n)]
        for i,mu in enumerate(shifts):
            own = [np.sqrt(correlation)*c+np.sqrt(1-correlation)*rng.standard_normal(c.shape) for c in common]
            parts[i].append(fold_parts(scores(model, mu, own[0], True, rng), scores(model, mu, own[1], False, rng)))
    return [left_out(p) for p in parts]

# -- tables -----------------------------------------------------------------------------------------------------------

def row(kind, cell, low, high, truth, value, **more):
    e = 1e-9
    assert ((low<=value+e)&(value<=high+e)).all(), cell
    above, below = (high<truth-e).mean(), (low>truth+e).mean()
    return dict(study=kind, **cell, truth=truth, above=above, below=below, width=(high-low).mean(), **more)

def auc_table(studies=2000):
    rows = []
    for model,a,n,share,folds in product(MODELS, AUCS, SIZES, SHARES, FOLDS):
        cases, rest = sizes(n, share, folds)
        rng = np.random.default_rng([SEED, n, folds, int(share*10), round(a*100), MODELS.index(model)])
        left, = auc_studies(model, [shift(model, a)], cases, rest, studies, rng)
        variance = jackknife_covariance(left, left, strata_of(cases, rest))
        low, high = interval(left[:,0], variance, partial(pair_rate, cases, rest))
        cell = dict(metric='AUC', model=model, patients=n, share=share, folds=folds, studies=studies)
        rows.append(row('auc', cell, low, high, truth_of(model, a), left[:,0], perfect=(left[:,0]==1).mean()))
    return pd.DataFrame(rows)

PAIRS = [(.5,.5),(.8,.8),(.9,.9),(.99,.99),(.7,.8),(.8,.9),(.9,.99)]
def paired_table(studies=2000, models=('binormal','skewed','heavy'), correlations=(0.,.6,.9)):
    rows = []
    for model,(a,b),n,share,folds,c in product(models, PAIRS, (12,24,40,200), SHARES, FOLDS, correlations):
        cases, rest = sizes(n, share, folds)
        key = n, folds, int(share*10), round(a*100), round(b*100), int(c*10), MODELS.index(model)
        rng = np.random.default_rng([SEED, *key])
        both = auc_studies(model, [shift(model, a), shift(model, b)], cases, rest, studies, rng, c)
        low, high = paired_interval(*both, strata_of(cases, rest), partial(pair_rate, cases, rest))
        cell = dict(metric='AUC difference', model=model, patients=n, share=share, folds=folds, studies=studies,
                    correlation=c, a=a, b=b)
        rows.append(row('paired', cell, low, high, a-b, both[0][:,0]-both[1][:,0]))
    return pd.DataFrame(rows)

# -- other metrics ----------------------------------------------------------------------------------

def class_probabilities(n, share, folds, separation, classes, rng, sharp=1.3):
    "Labels, stratified folds, and probabilities of a model that is `sharp` times as confident as is right"
    counts = np.array([n-round(n*share), round(n*share)]) if classes==2 else np.full(classes, n//classes)
    counts = np.maximum(counts, folds)
    y = np.repeat(np.arange(classes), counts)
    fold = np.concatenate([np.arange(k)%folds for k in counts])
    x = rng.standard_normal((len(y), classes)); x[np.arange(len(y)), y] += separation
    z = sharp*separation*x+np.log(counts/counts.sum())
    p = np.exp(z-z.max(1, keepdims=True))
    return y, fold, p/p.sum(1, keepdims=True)

def metric_functions(y, fold, p):
    "name → metric of rows and weights, whether pooled over folds, and its reference rate"
    pred, k, n, size = p.argmax(1), p.shape[1], len(y), np.bincount(y)
    counts = np.array([np.bincount(y[fold==f], minlength=k) for f in np.unique(fold)])
    ranked = lambda v: sum(pair_rate(counts[:,c], counts.sum(1)-counts[:,c], v) for c in range(k))/k
    positive = counts[:,1:] if k==2 else counts
    mean = lambda x: lambda rows,w: w@x[rows]/w.sum(1)
    return {'AUC': (lambda rows,w: auc(y[rows], p[rows], w), False, ranked),
            'average precision': (lambda rows,w: average_precision(y[rows], p[rows], w), False,
                                  (1/positive).mean()/len(counts)),
            'balanced accuracy': (lambda rows,w: balanced_accuracy(y[rows], pred[rows], w), True, class_rate(size)),
            'F1': (lambda rows,w: f1(y[rows], pred[rows], w), True, class_rate(size)),
            'accuracy': (mean((pred==y)*1.), True, 1/n),
            'Brier': (mean(((p-np.eye(k)[y])**2).sum(1)/2), True, .5/n)}

def metrics_table(studies=1000):
    rows = []
    two = [(2,s,n,b) for s in (.4,1.2,2.) for n in (18,40,100,200) for b in SHARES]
    for classes,separation,n,share in two+[(3,s,n,1/3) for s in (.8,1.6) for n in (18,40,100)]:
        folds = 3 if n<40 else 5
        rng, found = np.random.default_rng([SEED, classes, n, int(separation*10), int(share*10)]), []
        for _ in range(studies):
            y, fold, p = class_probabilities(n, share, folds, separation, classes, rng)
            functions, who = metric_functions(y, fold, p), np.arange(len(y))
            found.append({k: estimate(m, who, rate, fold, y, pooled) for k,(m,pooled,rate) in functions.items()})
        share_of = round(n*share)/n
        y, fold, p = class_probabilities(200_000, share_of, folds, separation, classes, np.random.default_rng(1))
        all_rows, once = np.arange(len(y)), np.ones((1,len(y)))
        truth = {k: float(m(all_rows, once)[0]) for k,(m,*_) in metric_functions(y, fold, p).items()}
        for k in found[0]:
            value, low, high = (np.array([getattr(f[k], a) for f in found]) for a in ('value','low','high'))
            if k=='average precision': truth[k] = value.mean()      # in a small fold it is another quantity
            cell = dict(metric=k, model=f'{classes} classes, separation {separation}', patients=n, share=share,
                        folds=folds, studies=studies)
            rows.append(row('metrics', cell, low, high, truth[k], value, mean=value.mean()))
    return pd.DataFrame(rows)

# -- numbers, grades and several labels -------------------------------------------------------------

def numbers(kind, strength, n, rng):
    "True and predicted numbers: bivariate normal, t with 3 degrees of freedom, lognormal, or six grades"
    z = rng.standard_normal((2,n))
    pair = np.array([z[0], strength*z[0]+np.sqrt(1-strength**2)*z[1]])
    if kind=='heavy': return pair/np.sqrt(rng.chisquare(3, n)/3)
    if kind=='skewed': return np.exp(pair)
    return np.digitize(pair, [-1.2,-.4,.2,.7,1.3]) if kind=='grades' else pair

def number_functions(kind, y, p, fold):
    "name → metric of rows and weights, whether pooled, reference rate, bounds, loss of the imagined patient"
    n, of = len(y), lambda metric: lambda rows,w: metric(y[rows], p[rows], w)
    if kind=='grades': return {
        'quadratic kappa': (of(quadratic_kappa), True, correlation_rate([n]), (-1,1), None),
        'grades off': (of(mae), True, 1/n, (0,np.inf), 1.)}
    return {'R²': (of(r2), True, 1/n, (-np.inf,1), 1.),
            'MAE': (of(mae), True, 1/n, (0,np.inf), np.abs(y-np.median(y)).mean()),
            'Spearman': (of(spearman), False, correlation_rate(np.bincount(fold)), (-1,1), None)}

def label_functions(y, p, fold):
    counts = [(np.bincount(fold, has), np.bincount(fold, 1-has)) for has in y.T]
    both = [(m[there], k[there]) for m,k in counts if (there := (m>0) & (k>0)).any()]
    rate = lambda v: sum(pair_rate(m, k, v) for m,k in both)/len(both)
    macro = lambda metric: lambda rows,w: nanmean([metric(y[rows,c], p[rows,c], w) for c in range(y.shape[1])])
    precision = np.mean([(1/np.maximum(m, 1)).mean()/len(m) for m,_ in counts])
    return {'macro AUC': (macro(auc), False, rate, (0,1), None),
            'macro average precision': (macro(average_precision), False, precision, (0,1), None)}

def several_labels(separation, n, rng):
    "Three correlated findings of half, a third and a sixth of the patients, and a score for each"
    common = rng.standard_normal(n)
    y = 1.*(.6*common[:,None]+.8*rng.standard_normal((n,3)) > norm.ppf([1/2,2/3,5/6]))
    return y, separation*y+rng.standard_normal((n,3))

def outcome_functions(kind, strength, n, fold, rng):
    "Functions of one study, see `number_functions`"
    if kind=='labels': return label_functions(*several_labels(strength, n, rng), fold)
    return number_functions(kind, *numbers(kind, strength, n, rng), fold)

def outcome_rows(kind, strength, n, studies, large=200_000):
    folds, found = 3 if n<40 else 5, []
    fold, who = np.arange(n)%folds, np.arange(n)
    rng = np.random.default_rng([SEED, n, int(strength*100), len(kind), ord(kind[0])])
    for _ in range(studies):
        of_study = outcome_functions(kind, strength, n, fold, rng)
        found.append({k: estimate(m, who, rate, fold, None, pooled, bounds, outlier=outlier)
                      for k,(m,pooled,rate,bounds,outlier) in of_study.items()})
    whole = outcome_functions(kind, strength, large, np.zeros(large, int), rng)
    for k in found[0]:
        value, low, high = (np.array([getattr(f[k], a) for f in found]) for a in ('value','low','high'))
        ok = ~np.isnan(value)
        in_folds = k in ('Spearman','macro average precision')        # in a small fold it is another quantity
        truth = value[ok].mean() if in_folds else float(whole[k][0](np.arange(large), np.ones((1,large)))[0])
        cell = dict(metric=k, model=f'{kind}, {strength}', patients=n, share=np.nan, folds=folds)
        yield row('outcomes', cell | dict(studies=int(ok.sum())), low[ok], high[ok], truth, value[ok],
                  mean=value[ok].mean())

def outcomes_table(studies=1000):
    cells = list(product(('normal','heavy','skewed','grades'), (0.,.5,.8,.95), (18,40,100,200)))
    cells += product(('labels',), (0.,.8,1.6), (40,100,200))
    return pd.DataFrame([r for cell in cells for r in outcome_rows(*cell, studies)])

def c_index_estimate(t, e, r, fold):
    from hipt_nb.survival import event_rate
    patients = pd.DataFrame(dict(event=e, fold=fold, patient=np.arange(len(t))))
    metric = lambda rows,w: c_index(t[rows], e[rows], r[rows], w)
    return estimate(metric, np.arange(len(t)), event_rate(patients), fold, e)

def c_index_table(studies=1000):
    def draw(n, effect, rng):
        risk = rng.standard_normal(n)
        time, censor = rng.exponential(np.exp(-effect*risk)), rng.exponential(1.5, n)
        return np.minimum(time, censor), time<=censor, risk
    rows = []
    for n,effect in product((18,40,100,200), (0.,.7,1.5,3.)):
        rng, found, folds = np.random.default_rng([SEED,n,int(effect*10)]), [], 3 if n<40 else 5
        t, e, r = draw(20_000, effect, np.random.default_rng(1))
        blocks = [slice(i, i+500) for i in range(0, 20_000, 500)]
        truth = np.mean([c_index(t[b], e[b], r[b], np.ones((1,500)))[0] for b in blocks])
        for _ in range(studies):
            t, e, r = draw(n, effect, rng)
            fold = np.empty(n,int); fold[np.argsort(e, kind='stable')] = np.arange(n)%folds
            found.append(c_index_estimate(t, e, r, fold))
        value, low, high = (np.array([getattr(f, a) for f in found]) for a in ('value','low','high'))
        ok = ~np.isnan(value)
        cell = dict(metric='c-index', model=f'hazard ratio exp({effect})', patients=n, share=np.nan, folds=folds,
                    studies=int(ok.sum()))
        rows.append(row('c-index', cell, low[ok], high[ok], truth, value[ok], mean=value[ok].mean()))
    return pd.DataFrame(rows)

TABLES = {'auc': auc_table, 'paired': paired_table, 'metrics': metrics_table, 'outcomes': outcomes_table,
          'c-index': c_index_table}

def main(which, studies=None):
    start, table = time.time(), TABLES[which](*([studies] if studies else []))
    old = pd.read_csv(RESULTS) if RESULTS.exists() else pd.DataFrame(dict(study=[]))
    pd.concat([old[old.study!=which], table], ignore_index=True).to_csv(RESULTS, index=False, float_format='%.5g')
    worst = table[['above','below']].max()
    took = f'{time.time()-start:.0f} s'
    print(f'{which}: {len(table)} cells, {took}, worst tails {worst.above:.3f} above, {worst.below:.3f} below')

if __name__=='__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('which', choices=TABLES); parser.add_argument('--studies', type=int)
    main(**vars(parser.parse_args()))
