"What the project takes from others: actions, packages, scripts. Which, in which version, under which licence"
import hashlib
import json
import re

import pytest
import yaml
from test_project import lib, load, package, root

workflows = sorted((root/'.github'/'workflows').glob('*.yml'))


@pytest.mark.parametrize('path', workflows, ids=lambda p: p.stem)
def test_actions_are_pinned(path):
    "A tag can be moved to other code, a commit cannot; the version stands beside it for people"
    used = re.findall(r'uses: *(\S+)(.*)', path.read_text('utf-8'))
    assert used
    for action, comment in used:
        assert re.fullmatch(r'[\w./-]+@[0-9a-f]{40}', action), action
        assert re.fullmatch(r' +# v\d[\w.]*( .*)?', comment), f'{action}: write its version beside it'


def test_one_commit_for_each_action():
    found = {}
    for path in workflows:
        for name, commit in re.findall(r'uses: *([\w./-]+)@(\w+)', path.read_text('utf-8')):
            found.setdefault(name, set()).add(commit)
    assert {k: v for k, v in found.items() if len(v) > 1} == {}


def test_a_release_waits_for_the_tests():
    jobs = yaml.safe_load((root/'.github'/'workflows'/'release.yml').read_text('utf-8'))['jobs']
    assert set(jobs['publish']['needs']) == {'test', 'build'}
    commands = [s.get('run', '') for s in jobs['build']['steps']]
    installs = [c for c in commands for c in c.splitlines() if 'pip install' in c]
    assert installs and all('-c constraints.txt' in c for c in installs)


def test_scripts_of_others_are_unchanged():
    "Those of the viewer and of its tests are those of the npm packages named in vendored.json, byte by byte"
    kept = json.loads((root/'tests'/'vendored.json').read_text('utf-8'))
    shipped = [p for p in (lib/'static').iterdir() if re.search(r'openseadragon|annotorious', p.name)]
    there = {p.name: p for p in (*shipped, *(root/'tests'/'vendored').iterdir())}
    assert {f for o in kept.values() for f in o['files']} == set(there)
    for o in kept.values():
        assert o['integrity'].startswith('sha512-')
        for name, digest in o['files'].items():
            assert hashlib.sha256(there[name].read_bytes()).hexdigest() == digest, name


def test_mathjax_is_checked(tmp_path):
    prepare = load('prepare')
    archive = tmp_path/'mathjax.tgz'
    archive.write_bytes(b'something else')
    assert not prepare.is_as_published(archive)


def test_constraints_are_complete():
    "Everything that is installed with all extras has its version there, torch's platform wheels excepted"
    licences = load('licences')
    pinned = {package(l) for l in (root/'constraints.txt').read_text().splitlines() if '==' in l}
    platform = re.compile(r'nvidia-|cuda-|triton|pytorch-triton|intel-|pip$|setuptools$|wheel$')
    missing = [n for n in licences.installed() if n not in pinned and not platform.match(n)]
    assert missing == [], 'add them to constraints.txt'


def test_licences():
    licences = load('licences')
    found = {n: licences.licence(d) for n, d in licences.installed().items()}
    assert {'torch', 'openslide-python', 'h5py'} <= set(found)
    assert {n: l for n, l in found.items() if not licences.is_allowed(l)} == {}
    assert not any(l.startswith('LicenseRef-NVIDIA') for n, l in found.items() if not re.match('nvidia-|cuda-', n))


@pytest.mark.parametrize('expression, good', [
    ('MIT', True), ('LGPL-2.1-only AND MIT', True), ('BSD-3-Clause OR GPL-2.0-only', True), ('GPL-3.0-or-later', False),
    ('MIT AND (GPL-2.0-only OR AGPL-3.0-only)', False), ('Apache-2.0 WITH LLVM-exception', True), ('UNKNOWN', False),
    ('CC-BY-NC-4.0', False), ('MIT AND (LGPL-2.1-only OR MPL-1.1)', True)])
def test_licence_expressions(expression, good): assert load('licences').is_allowed(expression) == good
