"""What people search for, and the page that answers, where the page may use another word

They become entries of the index, which the search box of the site looks through."""

WORDS = {
    'index': ['install', 'installation', 'quick start', 'requirements', 'citation'],
    'faq': ['troubleshooting', 'out of memory', 'GPU memory', 'cost', 'disk space', 'clinical use', 'Windows', 'offline'],
    'which-tool': ['comparison with other tools', 'CLAM', 'TRIDENT', 'LazySlide', 'STAMP', 'MOOZY', 'slide2vec', 'alternatives'],
    'real_slide': ['tutorial', 'getting started'],
    'attention': ['heatmap', 'attention map', 'saliency', 'explainability', 'interpretability', 'attention rollout'],
    'drawing': ['heatmap overlay', 'contact sheet', 'colour map'],
    'attend': ['heatmap of a slide'],
    'figures': ['OME-TIFF', 'GeoJSON of attention'],
    'views': ['augmentation', 'data augmentation', 'multi-crop', 'random crop', 'colour jitter', 'stain augmentation'],
    'dino': ['EMA', 'exponential moving average', 'teacher and student', 'self-distillation', 'self-supervised learning',
             'iBOT', 'masked image modelling', 'centring', 'collapse', 'prototypes', 'KoLeo', 'Sinkhorn'],
    'monitor': ['loss is flat', 'loss at ln K', 'collapse warning', 'learning curve'],
    'pretrain': ['pretraining', 'hierarchical pretraining', 'foundation model pretraining'],
    'loop': ['gradient accumulation', 'mixed precision', 'learning rate schedule', 'gradient clipping', 'weight decay', 'AMP'],
    'training': ['early stopping', 'overfitting', 'sharpness-aware minimisation', 'SAM', 'checkpoint selection'],
    'finetune': ['cross-validation', 'fine-tuning', 'hyperparameter', 'regularisation', 'dropout'],
    'intervals': ['confidence interval', 'bootstrap', 'DeLong', 'standard error', '95 % CI'],
    'comparison': ['paired test', 'p-value', 'statistical significance', 'power'],
    'metrics': ['AUC', 'AUROC', 'ROC curve', 'average precision', 'F1', 'balanced accuracy'],
    'evaluate': ['data leakage', 'patient split', 'train test split', 'folds', 'stratification'],
    'survival': ['c-index', 'concordance', 'Cox', 'Kaplan-Meier', 'hazard', 'censoring', 'time-dependent AUC'],
    'calibration': ['reliability diagram', 'temperature scaling', 'ECE', 'Brier score'],
    'decisions': ['sensitivity', 'specificity', 'net benefit', 'decision curve', 'subgroups', 'fairness'],
    'probe': ['KNN', 'nearest neighbours', 'linear probe', 'logistic regression', 'few-shot'],
    'outcomes': ['regression', 'ordinal', 'multi-label', 'quadratic kappa', 'ISUP grade'],
    'slide_models': ['multiple instance learning', 'MIL', 'ABMIL', 'gated attention', 'bag', 'aggregator'],
    'baselines': ['CLAM-SB', 'TransMIL', 'max pooling', 'mean pooling'],
    'vit': ['transformer', 'ViT', 'position embedding', 'padding mask', 'class token', 'self-attention', 'ALiBi', 'registers'],
    'hipt': ['hierarchy', 'embedding dimension', 'HIPT_4K', 'presets', 'hipt-tiny', 'save and load'],
    'weights': ['checkpoint', 'safetensors', 'pickle', 'Hugging Face'],
    'catalogue': ['foundation model', 'UNI', 'UNI2', 'Virchow', 'CONCH', 'GigaPath', 'H-optimus', 'Phikon', 'timm'],
    'precision': ['GPU', 'CUDA', 'bfloat16', 'float16', 'int8', 'quantisation', 'batch size', 'speed'],
    'graphs': ['CUDA graph', 'torch.compile'],
    'resume': ['several GPUs', 'multi-GPU', 'DDP', 'torchrun', 'distributed training', 'resume', 'preemption'],
    'cluster': ['Slurm', 'sbatch', 'job array', 'submitit', 'HPC'],
    'shares': ['sharding', 'Dask', 'parallel'],
    'stage': ['network drive', 'S3', 'bucket', 'NFS', 'slow disk'],
    'slide': ['mpp', 'microns per pixel', 'magnification', '20x', '40x', 'resolution', 'OpenSlide', 'pyramid levels'],
    'readers': ['DICOM', 'MIRAX', 'NDPI', 'SVS', 'SCN', 'CZI', 'tifffile', 'file formats'],
    'tissue': ['tissue segmentation', 'background', 'Otsu', 'mask'],
    'artefacts': ['pen marks', 'blur', 'out of focus', 'quality control', 'QC'],
    'areas': ['QuPath', 'annotations', 'GeoJSON', 'region of interest', 'ROI'],
    'tiling': ['patching', 'tile extraction', 'biopsy', 'small tissue', 'overlap', 'patch size'],
    'colour': ['stain normalisation', 'Macenko', 'ICC profile', 'batch effect', 'scanner'],
    'tcga': ['GDC', 'TCGA', 'clinical table', 'tissue source site'],
    'cohort': ['manifest', 'CSV', 'metadata'],
    'samples': ['sampler', 'data loader', 'prefetching', 'reproducibility', 'seed'],
    'embed': ['feature extraction', 'embedding', 'inference'],
    'features': ['HDF5', 'h5', 'feature file'],
    'viewer': ['OpenSeadragon', 'deep zoom', 'slide viewer', 'annotation tool'],
    'report': ['HTML report', 'results page'],
    'methods': ['reporting checklist', 'methods section', 'versions'],
    'generalisation': ['generalisation gap', 'sharpness', 'flat minimum'],
    'phantom': ['synthetic slides', 'simulated data', 'test data'],
}
MUST = 'heatmap', 'augmentation', 'confidence interval', 'EMA', 'early stopping', 'GPU', 'install'


def entries(page):
    "Entries of a page as a directive of MyST; its last part names it, so that folders do not matter"
    found = WORDS.get(page.split('/')[-1], [])
    return '```{index} ' + ', '.join(found) + '\n```\n\n' if found else ''
