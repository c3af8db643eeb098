"Everything here comes from settings.ini, the one source of package metadata"
import re
from configparser import ConfigParser
from pathlib import Path

from setuptools import setup

root = Path(__file__).parent
config = ConfigParser(delimiters='=', interpolation=None)
config.read(root/'settings.ini', encoding='utf-8')
cfg = config['DEFAULT']


def lines(key): return [o.strip() for o in cfg.get(key, '').splitlines() if o.strip()]


def version():
    text = (root/cfg['lib_name']/'__init__.py').read_text('utf-8')
    return re.search(r"__version__ = ['\"](.+?)['\"]", text)[1]


def readme():
    "README.md with its relative links made absolute, as the package index shows it without the repository beside it"
    url = re.search(r'^Repository = "(.+?)"', (root/'pyproject.toml').read_text('utf-8'), re.M)[1]
    text = (root/'README.md').read_text('utf-8')
    text = re.sub(r'(!\[[^\]]*\]\()(?!https?:|#)', rf'\1{url}/raw/main/', text)
    return re.sub(r'(?<!!)(\[[^\]\n]*\]\()(?!https?:|#|mailto:)', rf'\1{url}/blob/main/', text)


def minors(low, high): return [f'3.{i}' for i in range(int(low.split('.')[1]), int(high.split('.')[1]) + 1)]


extras = {k.removesuffix('_requirements'): lines(k) for k in cfg if k.endswith('_requirements')}
status = {'2': 'Pre-Alpha', '3': 'Alpha', '4': 'Beta', '5': 'Production/Stable'}[cfg['status']]
lib = cfg['lib_name']

setup(
    name=lib,
    version=version(),
    description=cfg['description'],
    long_description=readme(),
    long_description_content_type='text/markdown',
    author=cfg['author'],
    license=cfg['license'],
    license_files=['LICENSE'],
    keywords=cfg['keywords'].split(),
    classifiers=[
        f"Development Status :: {cfg['status']} - {status}",
        'Intended Audience :: Science/Research',
        'Topic :: Scientific/Engineering :: Medical Science Apps.',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
        'Programming Language :: Python :: 3',
        *[f'Programming Language :: Python :: {v}' for v in minors(cfg['min_python'], cfg['max_python'])],
    ],
    python_requires=f">={cfg['min_python']}",
    install_requires=lines('requirements'),
    extras_require=extras,
    packages=[lib],
    package_data={lib: ['py.typed', 'static/**', 'templates/**', 'static/*', 'templates/*']},
    entry_points={'console_scripts': lines('console_scripts'), 'nbdev': [f'{lib} = {lib}._modidx:d']},
    include_package_data=False,
    zip_safe=False,
)
