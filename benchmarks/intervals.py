"""Coverage of the confidence intervals on simulated cross-validated studies: scores are drawn, nothing is trained.

    python benchmarks/intervals.py auc|paired|metrics|survival|outcomes [--studies 4000]   # replaces its rows

`above` is the share of studies whose true value lies above the interval, `below` below it; .025 each would be exact.
The constants of the method (weight of the prior 8, skew 1/4, 1/2 added before the arcsine, t with 2/rate degrees of
freedom, and those of the paired difference) were chosen on the score models in TUNED with other random numbers; `harsh`
was shown but left out of that choice; `heavy` and `tied` were added afterwards, so they are the independent check.
The imagined patient of balanced accuracy, F1 and kappa, and the 15 % of F1, were chosen with other random numbers too.
Studies are drawn and evaluated as arrays; `check` compares them with the library, study by study."""
import os; os.environ.setdefault('OMP_NUM_THREADS', '1')
import argparse, time
from functools import partial
from itertools import product
from pathlib import Path
import numpy as np, pandas as pd
from scipy.special import log_ndtr
from scipy.stats import norm
from hipt_nb.comparison import fold_score
from hipt_nb.intervals import class_rate, estimate, interval, jackknife_covariance, jackknife_strata
from hipt_nb.intervals import pair_rate, paired_interval
from hipt_nb.metrics import auc, average_precision, nanmean, prediction_table
from hipt_nb.outcomes import correlation_rate, mae, quadratic_kappa as kappa_of_grades, r2, spearman
from hipt_nb.survival import survival_metrics, survival_table as predicted_survival

SEED, SEED_METRICS = 20261127, 20261128   # of AUC and paired differences; of the other metrics
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
    "Mean over folds with all patients, then each left out `[studies, 1+patients]`; a fold without a value drops out"
    wholes = np.stack([w for w,_ in parts], 1)
    res = [nanmean(wholes.T)[:,None]]
    for k,(_,without) in enumerate(parts):
        others = np.delete(wholes, k, 1)
        there = ~np.isnan(others)
        total, n = np.nan_to_num(others).sum(1, keepdims=True), there.sum(1, keepdims=True)
        mean = divide(total+np.nan_to_num(without), n+~np.isnan(without))
        res.append(np.where(np.isnan(wholes[:,[k]]), res[0], mean))
    return np.concatenate(res, 1)

def divide(a, b):
    with np.errstate(invalid='ignore', divide='ignore'): return a/b

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

# -- metrics of predicted classes: functions of a confusion matrix, so that studies are drawn as counts ---------------

def of_classes(m, share): return nanmean(np.moveaxis(share, -1, 0))
def diagonal(m): return np.diagonal(m, axis1=-2, axis2=-1)
def quadratic_kappa(m, distance=None):
    k = np.arange(m.shape[-1])
    distance = (k[:,None]-k)**2 if distance is None else distance
    expected = m.sum(-1)[...,:,None]*m.sum(-2)[...,None,:]/m.sum((-1,-2))[...,None,None]
    return 1-divide((distance*m).sum((-1,-2)), (distance*expected).sum((-1,-2)))

COUNTED = {   # name → metric of `[..., classes, classes]` (true, predicted), least value, patients it is a share of
    'accuracy': (lambda m: divide(diagonal(m).sum(-1), m.sum((-1,-2))), 0, lambda m: m.sum((-1,-2))),
    'balanced accuracy': (lambda m: of_classes(m, divide(diagonal(m), m.sum(-1))), 0, None),
    'F1': (lambda m: of_classes(m, divide(2*diagonal(m), m.sum(-1)+m.sum(-2))), 0, None),
    'kappa': (lambda m: quadratic_kappa(m, 1.-np.eye(m.shape[-1])), -1, None),
    'quadratic kappa': (quadratic_kappa, -1, None),
    'sensitivity': (lambda m: divide(m[...,1,1], m[...,1,:].sum(-1)), 0, lambda m: m[...,1,:].sum(-1)),
    'specificity': (lambda m: divide(m[...,0,0], m[...,0,:].sum(-1)), 0, lambda m: m[...,0,:].sum(-1)),
    'PPV': (lambda m: divide(m[...,1,1], m[...,:,1].sum(-1)), 0, lambda m: m[...,:,1].sum(-1)),
    'NPV': (lambda m: divide(m[...,0,0], m[...,:,0].sum(-1)), 0, lambda m: m[...,:,0].sum(-1))}
SMOOTHED = 'balanced accuracy','F1','kappa','quadratic kappa'

def class_sizes(n, share, folds, classes):
    counts = np.array([n-round(n*share), round(n*share)]) if classes==2 else np.full(classes, n//classes)
    return np.maximum(counts, folds)

def prediction_shares(counts, separation, ordinal=False, sharp=1.3, draws=400_000):
    "How often a patient of each class is predicted as what: `[classes, classes]`"
    rng, classes = np.random.default_rng(1), len(counts)
    if ordinal:   # a hidden grade with noise, rounded
        grade = np.arange(classes)[:,None]+rng.standard_normal((classes,draws))/separation
        pred = np.clip(np.round(grade), 0, classes-1).astype(int)
    else:
        x = rng.standard_normal((classes, draws, classes))
        x[np.arange(classes),:,np.arange(classes)] += separation
        pred = (sharp*separation*x+np.log(counts/counts.sum())).argmax(-1)
    return np.stack([np.bincount(p, minlength=classes)/draws for p in pred])

def cell_changes(metric, m):
    "How the metric changes when one patient leaves a cell `[studies, classes, classes]`"
    value, res = metric(m), np.empty_like(m)
    for c,j in product(*map(range, m.shape[1:])):
        fewer = m.copy()
        fewer[:,c,j] = np.maximum(fewer[:,c,j]-1, 0)
        res[:,c,j] = metric(fewer)-value
    return res

def cell_variance(changes, m):
    "`jackknife_covariance` with itself, from the patients of each cell; strata are the classes"
    m = np.where(np.isnan(changes), 0, m)
    changes, n = np.nan_to_num(changes), m.sum(-1)
    mean = np.where(n>1, divide((m*changes).sum(-1), n), 0)
    return ((m*(changes-mean[...,None])**2).sum(-1)*np.where(n>1, divide(n-1, n), 1)).sum(-1)

def smoothed_cells(metric, m):
    "`smoothed_variance` of many studies"
    return cell_variance(cell_changes(metric, m+1), m+1)

def counted_cells():
    two = [(2,s,n,b,False) for s in (.4,.8,1.2,1.6,2.,2.6) for n in SIZES for b in SHARES]
    more = [(c,s,n,1/c,False) for c in (3,5) for s in (.4,.8,1.6,2.4) for n in (18,40,100,200)]
    return two+more+[(5,s,n,1/5,True) for s in (.5,1.,2.) for n in (25,40,100,200)]

def counted_table(studies=4000):
    rows = []
    for classes,separation,n,share,ordinal in counted_cells():
        folds = 3 if n<40 else 5
        counts = class_sizes(n, share, folds, classes)
        rng = np.random.default_rng([SEED_METRICS, classes, n, int(separation*10), int(share*10), ordinal])
        shares = prediction_shares(counts, separation, ordinal)
        m = np.stack([rng.multinomial(k, q, studies) for k,q in zip(counts, shares)], 1).astype(float)
        model = f"{classes} {'grades' if ordinal else 'classes'}, separation {separation}"
        for name,(metric,least,trials) in COUNTED.items():
            if name in ('sensitivity','specificity','PPV','NPV') and classes>2: continue
            if name=='quadratic kappa' and classes==2: continue
            value, variance = metric(m), cell_variance(cell_changes(metric, m), m)
            if name in SMOOTHED: variance = np.maximum(variance, smoothed_cells(metric, m))
            rate = class_rate(counts)*(1.15 if name=='F1' else 1) if trials is None else 1/np.maximum(trials(m), 1)
            low, high = interval(value, variance, rate, (least,1))
            there, truth = ~np.isnan(value), float(metric(counts[:,None]*shares))
            cell = dict(metric=name, model=model, patients=int(counts.sum()), share=share, folds=folds,
                        studies=int(there.sum()))
            rows.append(row('metrics', cell, low[there], high[there], truth, value[there], mean=value[there].mean()))
    return pd.DataFrame(rows)

# -- metrics of scores, class by class -------------------------------------------------------------------------------

def precision_parts(pos, neg):
    "Average precision of a fold `[studies]`, and with each patient left out `[studies, patients]`"
    m, scores = pos.shape[1], np.concatenate([pos, neg], 1)
    above = (scores[:,None,:]>=pos[:,:,None])*1.
    hits, all_ = above[:,:,:m].sum(-1), above.sum(-1)
    whole = (hits/all_).mean(1)
    is_pos = (np.arange(scores.shape[1])<m)*1.
    each = divide(hits[:,:,None]-above*is_pos, all_[:,:,None]-above)
    own = np.zeros_like(each); own[:,np.arange(m),np.arange(m)] = 1
    without = divide(np.where(own>0, 0, each).sum(1), m-is_pos)
    return whole, without

def one_against_rest(parts, p, y):
    "A metric of a fold, mean over classes: `[studies]`, and with each patient left out `[studies, patients]`"
    found = []
    for c in ([1] if p.shape[2]==2 else range(p.shape[2])):
        whole, without = parts(p[:,y==c,c], p[:,y!=c,c])
        order = np.argsort(np.r_[np.flatnonzero(y==c), np.flatnonzero(y!=c)])
        found.append((whole, without[:,order]))
    return tuple(nanmean(np.stack(o)) for o in zip(*found))

def mean_rate(parts, value): return sum(pair_rate(*part, value) for part in parts)/len(parts)

def scored_cells():
    two = [(2,s,n,b) for s in (.4,1.2,2.) for n in (18,40,100,200) for b in SHARES]
    return two+[(3,s,n,1/3) for s in (.8,1.6) for n in (18,40,100)]

def scored_table(studies=4000):
    rows = []
    for classes,separation,n,share in scored_cells():
        folds = 3 if n<40 else 5
        counts = class_sizes(n, share, folds, classes)
        rng = np.random.default_rng([SEED_METRICS, classes, n, int(separation*10), int(share*10)])
        y = np.repeat(np.arange(classes), counts)
        fold = np.concatenate([np.arange(k)%folds for k in counts])
        x = rng.standard_normal((studies, len(y), classes)); x[:,np.arange(len(y)),y] += separation
        z = 1.3*separation*x+np.log(counts/counts.sum())
        p = np.exp(z-z.max(-1, keepdims=True)); p /= p.sum(-1, keepdims=True)
        in_fold = np.array([np.bincount(y[fold==k], minlength=classes) for k in range(folds)])
        positive = in_fold[:,1:] if classes==2 else in_fold
        parts_of = [(in_fold[:,c], in_fold.sum(1)-in_fold[:,c]) for c in range(classes)]
        ranked = partial(mean_rate, parts_of)
        order = np.argsort(fold, kind='stable')
        strata = jackknife_strata(fold[order], y[order])
        precise = (1/positive).mean()/folds
        kinds = ('AUC', fold_parts, ranked), ('average precision', precision_parts, precise)
        for name,parts,rate in kinds:
            left = left_out([one_against_rest(parts, p[:,fold==k], y[fold==k]) for k in range(folds)])
            low, high = interval(left[:,0], jackknife_covariance(left, left, strata), rate)
            truth = left[:,0].mean()   # an AUC is unbiased; average precision of a small fold is another quantity
            cell = dict(metric=name, model=f'{classes} classes, separation {separation}', patients=len(y), share=share,
                        folds=folds, studies=studies)
            rows.append(row('metrics', cell, low, high, truth, left[:,0], mean=left[:,0].mean()))
        loss = ((p-np.eye(classes)[y])**2).sum(-1)/2
        value = loss.mean(1)
        left = np.c_[value, (loss.sum(1, keepdims=True)-loss)/(len(y)-1)]
        strata = jackknife_strata(np.zeros(len(y)), y)
        low, high = interval(value, jackknife_covariance(left, left, strata), .5/len(y))
        cell = cell | dict(metric='Brier')
        rows.append(row('metrics', cell, low, high, value.mean(), value, mean=value.mean()))
    return pd.DataFrame(rows)

# -- survival --------------------------------------------------------------------------------------------------------

def concordance_parts(time, event, risk):
    pairs = event[:,:,None] & (time[:,:,None]<time[:,None,:])
    return pair_parts(pairs*1., risk)

def pair_parts(pairs, risk):
    "Share of the weighted pairs `[studies, n, n]` in the right order, and with each patient left out"
    right = pairs*(risk[:,:,None]>risk[:,None,:])
    gone = [a.sum(2)+a.sum(1) for a in (right, pairs)]
    whole = [a.sum((1,2)) for a in (right, pairs)]
    left = [w[:,None]-g for w,g in zip(whole, gone)]
    return divide(*whole), np.where(left[1]>1e-12, divide(*left), np.nan)

def censoring_steps(time, event):
    "Inverse of the probability of not being censored until then, for every patient (Kaplan-Meier, no ties)"
    order = np.argsort(time, 1)
    at_risk = time.shape[1]-np.arange(time.shape[1])
    stays = 1-divide(~np.take_along_axis(event, order, 1)*1., at_risk)
    return np.take_along_axis(divide(1, np.cumprod(stays, 1)), np.argsort(order, 1), 1)

def strata_variance(left, event, fold):
    "`jackknife_covariance` where the strata, event and fold, differ between studies"
    change = left[:,1:]-left[:,:1]
    there, res = ~np.isnan(change), 0
    for e in (True, False):
        lone = [np.zeros(len(left)) for _ in range(3)]
        for k in np.unique(fold):
            of = (event==e) & (fold==k)
            powers = [np.nan_to_num(change)**power for power in range(3)]
            sums = [np.where(of & there, x, 0).sum(1) for x in powers]
            alone = of.sum(1)==1
            lone = [l+np.where(alone, s, 0) for l,s in zip(lone, sums)]
            res = res+_squares(*[np.where(alone, 0, s) for s in sums])
        res = res+_squares(*lone)
    return res

def _squares(n, total, squares):
    spread = squares-np.where(n>1, divide(total**2, n), 0)
    return np.where(n>0, spread*np.where(n>1, divide(n-1, n), 1), 0)

def fold_rate(m, n, there):
    "`pair_rate` of the folds that have a value `[studies]`"
    def rate(v):
        v = np.broadcast_to(np.asarray(v, float), len(m))[:,None]
        each = pair_rate(np.maximum(m, 1)[...,None], np.maximum(n, 1)[...,None], v)
        return (each*there).sum(1)/np.maximum(there.sum(1), 1)**2
    return rate

def draw_survival(studies, n, effect, rng):
    risk = rng.standard_normal((studies,n))
    time, censor = rng.exponential(np.exp(-effect*risk)), rng.exponential(1.5, (studies,n))
    return np.minimum(time, censor), time<=censor, risk

def survival_table(studies=4000):
    rows = []
    for n,effect in product((18,24,40,80,100,200), (0.,.7,1.5,3.)):
        folds = 3 if n<40 else 5
        rng = np.random.default_rng([SEED_METRICS, n, int(effect*10)])
        time, event, risk = draw_survival(studies, n, effect, rng)
        order = np.argsort(event, 1, kind='stable')
        time, event, risk = (np.take_along_axis(a, order, 1) for a in (time, event, risk))
        weight, fold = censoring_steps(time, event), np.arange(n)%folds
        order = np.argsort(fold, kind='stable')
        time, event, risk, weight, fold = time[:,order], event[:,order], risk[:,order], weight[:,order], fold[order]
        true_time, true_risk = survival_truth(effect)
        of = [fold==k for k in range(folds)]
        found = {'c-index': ([concordance_parts(time[:,f], event[:,f], risk[:,f]) for f in of], true_c(effect),
                             [event[:,f].sum(1) for f in of], [(f.sum()-1)/2*np.ones(studies) for f in of])}
        for share in (.25,.5,.75):
            at = np.quantile(true_time, share)
            case, control = event & (time<=at), time>at
            pairs = [np.where(case[:,f], weight[:,f], 0)[:,:,None]*control[:,None,f] for f in of]
            truth = mann_whitney(true_risk[true_time<=at], true_risk[true_time>at])
            found[f'AUC at {share:.0%} of events'] = ([pair_parts(p, risk[:,f]) for p,f in zip(pairs, of)], truth,
                [case[:,f].sum(1) for f in of], [control[:,f].sum(1) for f in of])
        for name,(parts,truth,m,k) in found.items():
            left, m, k = left_out(parts), np.stack(m, 1), np.stack(k, 1)
            there = (m>0) & (k>0) if 'AUC' in name else np.ones_like(m, bool)
            low, high = interval(left[:,0], strata_variance(left, event, fold), fold_rate(m, k, there))
            ok = ~np.isnan(left[:,0])
            cell = dict(metric=name, model=f'hazard ratio exp({effect})', patients=n, share=np.nan, folds=folds,
                        studies=int(ok.sum()))
            rows.append(row('survival', cell, low[ok], high[ok], truth, left[ok,0], mean=left[ok,0].mean()))
    return pd.DataFrame(rows)

def survival_truth(effect, n=400_000):
    "Times without censoring, and risks"
    rng = np.random.default_rng(1); risk = rng.standard_normal(n)
    return rng.exponential(np.exp(-effect*risk)), risk

def mann_whitney(case, control):
    order = np.sort(control)
    return np.searchsorted(order, case).mean()/len(control)

def true_c(effect, blocks=100, n=500):
    time, event, risk = draw_survival(blocks, n, effect, np.random.default_rng(1))
    return concordance_parts(time, event, risk)[0].mean() if effect else .5

def metrics_table(studies=4000): return pd.concat([counted_table(studies), scored_table(studies)])

def check(n=20):
    "A few drawn studies, evaluated by the library"
    rng = np.random.default_rng(0)
    for _ in range(n):
        check_counted(rng)
        check_survival(rng)

def check_counted(rng):
    y = np.repeat(np.arange(2), (14,6))
    p = np.c_[1-(q := np.clip(rng.random(20)*.7+.3*y, 0, 1)), q]
    pred = prediction_table(np.arange(20), np.arange(20), y, p, ['a','b'], np.zeros(20, int))
    m = np.zeros((1,2,2))
    np.add.at(m, (0, y, p.argmax(1)), 1)
    for name,rate in (('balanced accuracy', 1), ('F1', 1.15)):
        metric = COUNTED[name][0]
        variance = np.maximum(cell_variance(cell_changes(metric, m), m), smoothed_cells(metric, m))
        low, high = interval(metric(m), variance, rate*class_rate([14,6]))
        e = fold_score(pred, name)
        assert np.allclose([metric(m)[0], low[0], high[0]], [e.value, e.low, e.high], atol=1e-9), name
    left = left_out([precision_parts(p[None,y==1,1], p[None,y==0,1])])
    order = np.r_[np.flatnonzero(y==1), np.flatnonzero(y==0)]
    low, high = interval(left[:,0], jackknife_covariance(left, left, jackknife_strata(np.zeros(20), y[order])), 1/6)
    e = fold_score(pred, 'average precision')
    assert np.allclose([left[0,0], low[0], high[0]], [e.value, e.low, e.high], atol=1e-9)

def check_survival(rng):
    time, event, risk = draw_survival(1, 30, 1., rng)
    fold = np.arange(30)//10
    who, columns = np.arange(30), [a[0] for a in (time, event, risk)]
    parts = [predicted_survival(who[fold==k], who[fold==k], *(c[fold==k] for c in columns), k) for k in range(3)]
    table = pd.concat(parts)
    at = float(f'{np.median(time):.3g}')
    case, control, weight = event & (time<=at), time>at, censoring_steps(time, event)
    of = [fold==k for k in range(3)]
    pairs = [np.where(case[:,f], weight[:,f], 0)[:,:,None]*control[:,None,f] for f in of]
    m, k = (np.stack([a[:,f].sum(1) for f in of], 1) for a in (case, control))
    found = {'c-index': ([concordance_parts(time[:,f], event[:,f], risk[:,f]) for f in of],
                         np.stack([event[:,f].sum(1) for f in of], 1), np.full((1,3), 4.5), np.ones((1,3), bool)),
             f'AUC at {at:g}': ([pair_parts(p, risk[:,f]) for p,f in zip(pairs, of)], m, k, (m>0) & (k>0))}
    metrics = survival_metrics(table, [at])
    for name,(parts,m,k,there) in found.items():
        left = left_out(parts)
        low, high = interval(left[:,0], strata_variance(left, event, fold), fold_rate(np.maximum(m, 1), k, there))
        e = fold_score(table, metrics[name])
        assert np.allclose([left[0,0], low[0], high[0]], [e.value, e.low, e.high], atol=1e-6), (name, low, high, e)

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
        'quadratic kappa': (of(kappa_of_grades), True, correlation_rate([n]), (-1,1), None),
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

TABLES = {'auc': auc_table, 'paired': paired_table, 'metrics': metrics_table, 'survival': survival_table,
          'outcomes': outcomes_table}

def main(which, studies=None):
    check()
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
