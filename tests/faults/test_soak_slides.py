"""Five hundred tiny slides, one of ten broken, in ten ways: `pytest -m faults tests/faults/test_soak_slides.py`, or as
many slides as `SOAK_SLIDES` says"""
import csv
import os
import struct
import zlib

import numpy as np
import pytest


def png_of(width, height):
    "A PNG that claims a size"
    head = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
    chunk = lambda kind, data: struct.pack('>I', len(data))+kind+data+struct.pack('>I', zlib.crc32(kind+data))
    return b'\x89PNG\r\n\x1a\n'+chunk(b'IHDR', head)+chunk(b'IDAT', zlib.compress(bytes(1000)))+chunk(b'IEND', b'')


def changed(data, tag, value):
    "A little-endian TIFF with another value of a field of its first directory"
    data, at = bytearray(data), struct.unpack_from('<I', data, 4)[0]
    for i in range(struct.unpack_from('<H', data, at)[0]):
        if struct.unpack_from('<H', data, at+2+12*i)[0]==tag: struct.pack_into('<I', data, at+2+12*i+8, value)
    return bytes(data)


def looped(data):
    "A TIFF whose first directory is followed by itself"
    data, at = bytearray(data), struct.unpack_from('<I', data, 4)[0]
    struct.pack_into('<I', data, at+2+12*struct.unpack_from('<H', data, at)[0], at)
    return bytes(data)


BROKEN = {
    'cut off': lambda d: d[:len(d)//3], 'empty': lambda d: b'', 'a web page': lambda d: b'<!doctype html><html></html>',
    'a pointer of Git LFS': lambda d: b'version https://git-lfs.github.com/spec/v1\n', 'zeros': lambda d: bytes(len(d)),
    'tiles of 2 GB': lambda d: changed(d, 323, 2**31-1), 'no width': lambda d: changed(d, 256, 0),
    'no places of tiles': lambda d: changed(d, 324, 2**32-1), 'a directory that does not end': looped,
    'a PNG of 48,000 pixels': lambda d: png_of(48000, 48000)}


def make_slides(folder, n):
    "Tiny slides of a few contents; every tenth is broken"
    import tifffile
    rng, plain = np.random.default_rng(0), []
    for _ in range(4):
        a = np.full((768, 768, 3), 240, np.uint8)
        a[100:600, 100:600] = rng.integers(90, 210, (500, 500, 3))*np.array([1, .6, .9])
        tifffile.imwrite(folder/'one.tif', a, tile=(256, 256), photometric='rgb', compression='deflate',
                         resolutionunit='CENTIMETER', resolution=(20000, 20000))
        plain.append((folder/'one.tif').read_bytes())
    (folder/'one.tif').unlink()
    ways, broken = list(BROKEN.values()), set()
    for i in range(n):
        data = plain[i % 4]
        if i % 10==3:
            data = ways[i//10 % len(ways)](data)
            broken.add(f's{i:03}')
        (folder/f's{i:03}.tif').write_bytes(data)
    return broken


@pytest.mark.faults
def test_many_slides(hipt, tmp_path):
    "The rest is done, the log is complete, and memory does not grow with the cohort"
    n, memory = int(os.environ.get('SOAK_SLIDES', 500)), {}
    for name,count in (('few', n//5), ('all', n)):
        (tmp_path/name).mkdir()
        broken = make_slides(tmp_path/name, count)
        out = name, '--out', f'{name}-run'
        for verb,*more in (('info',), ('tile', '--region-size', 512, '--blur', 'none'),
                           ('embed', '--model', 'hipt-tiny:random'), ('status',), ('report',)):
            args = (f'{name}-run',) if verb=='status' else (name,) if verb=='info' else out
            rc, text = hipt(tmp_path, verb, *args, *more, seconds=3600)
            assert rc in (0, 1) and 'Traceback' not in text and 'unexpected' not in text, text[-3000:]
            assert verb=='info' or rc==0, text[-3000:]
            memory[name, verb] = hipt.memory
            if verb=='info': assert {s for s in broken if s in text}==broken
        rows = list(csv.reader((tmp_path/f'{name}-run'/'log.csv').open(newline='')))[1:]
        for step in ('tile', 'embed/hipt-tiny-random'):
            status = {r[0]: r[2] for r in rows if r[1]==step}
            assert len(status)==count and {s for s in status if status[s]=='failed'}==broken
            assert all(r[3] for r in rows if r[2]=='failed')
            assert {status[s] for s in status if s not in broken}=={'done'}
    print(memory)
    for verb in ('info', 'tile', 'embed'): assert memory['all', verb] < 1.1*memory['few', verb]+20
