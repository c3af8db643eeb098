"Golden numbers of survival figures from scikit-survival: `python tests/golden/survival_make.py` where it is installed"
import json
from pathlib import Path

import numpy as np

times = [5., 10., 15.]


def study(seed, n, ties):
    "Made-up patients: time, event, risk; whole numbers where ties are wanted"
    rng = np.random.default_rng(seed)
    hidden = rng.standard_normal(n)
    happens, seen = rng.exponential(15*np.exp(-.7*hidden)), rng.uniform(2, 40, n)
    time, risk = np.minimum(happens, seen)+.5, hidden+rng.standard_normal(n)
    return (np.ceil(time) if ties else time), happens <= seen, (risk.round(1) if ties else risk)


if __name__ == '__main__':
    from sksurv.metrics import concordance_index_censored, cumulative_dynamic_auc
    from sksurv.util import Surv
    cases = []
    for seed, n, ties in [(0, 40, False), (1, 40, True), (2, 150, False), (3, 150, True)]:
        time, event, risk = study(seed, n, ties)
        y = Surv.from_arrays(event, time)
        try: auc = cumulative_dynamic_auc(y, y, risk, times)[0].tolist()
        except ValueError: auc = None     # the last patient is censored at a time that is asked about
        cases.append(dict(seed=seed, n=n, ties=ties, c_index=float(concordance_index_censored(event, time, risk)[0]),
                          auc=auc))
    (Path(__file__).parent/'survival.json').write_text(json.dumps(cases, indent=1)+'\n')
    print(cases)
