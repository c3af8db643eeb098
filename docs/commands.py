"One example of every command of `hipt`, as the site shows it; a test reads each with the command's own parser"

EXAMPLES = {
    'info': 'hipt info slides/                          # size, levels and µm per pixel of every slide in a folder',
    'tile': 'hipt tile slides/ --out run                # regions of 4096 px\n'
            'hipt tile biopsies/ --out run --region-size 1024',
    'pretrain': 'hipt pretrain slides/ --out run            # published sizes, on a GPU\n'
                'hipt pretrain slides/ --out run --preset hipt-tiny --recipe small   # on two processor cores',
    'embed': 'hipt embed slides/ --out run               # with the pyramid that was pretrained in this run\n'
             'hipt embed slides/ --out run --model uni2-h   # or with a foundation model below',
    'import-weights': 'hipt import-weights vit256_small_dino.pth vit4k_xs_dino.pth --out models/hipt-4k',
    'train': 'hipt train cohort.csv --out run            # classes of the column label, five folds by patient',
    'knn': 'hipt knn cohort.csv --out run              # no training: how far do the features alone get?',
    'probe': 'hipt probe cohort.csv --out run            # logistic regression of mean features\n'
             'hipt probe cohort.csv --out run --task cox # survival',
    'evaluate': 'hipt evaluate cohort.csv --out run         # AUC with 95 % intervals, beside the mean of patches',
    'predict': 'hipt predict new_slides/ --out run',
    'attend': 'hipt attend slides/ --out run              # maps of patches, regions and slides\n'
              'hipt attend slides/case_7.svs --out run --geojson 2   # patches of twice the average, for QuPath',
    'report': 'hipt report cohort.csv --out run           # everything on one page: run/index.html',
    'status': 'hipt status run                            # done, running, failed, left, and how to go on',
    'view': 'hipt view run                              # slides and maps in the browser, from this machine only',
    'export': 'hipt export slides/ --out run              # outlines and regions as GeoJSON for QuPath\n'
              'hipt export slides/ --out run --to trident --features',
    'import': 'hipt import --from trident_out/ --out run --encoder uni2-h',
    'tcga': "hipt tcga gdc_manifest.txt --out cohort.csv --clinical clinical.tsv --label project_id",
    'demo': 'hipt demo --quick --out demo               # the whole road on phantom slides, about a minute',
}
