"Broken inputs, made from whole ones by a seed: bytes, headers, fields and arrays"
import csv
import io
import json
import random
import struct
from pathlib import Path

NUMBERS = [0, 1, -1, 2, 255, 2**16-1, 2**31-1, 2**32-1, 2**40, -2**60, 1e10, 1e308, float('nan'), float('inf'), .5]
TEXTS = ['', ' ', '\0', '../../../x', '/etc/passwd', 'a/b', '=1+1', 'NaN', 'None', '1e400', '-0', 'é\u202e', 'x'*300,
         '1,5', 'true', '{}', '\n', "';--", '<script>']
VALUES = [*NUMBERS, *TEXTS, None, True, [], {}, [1], {'a': 1}]


# ---- any file

def truncate(rng, data): return data[:rng.randrange(len(data))]


def flip(rng, data):
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 8, 64])): data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def flip_head(rng, data):
    n = min(len(data), 512)
    return flip(rng, data[:n])+data[n:]


def blank(rng, data):
    a = rng.randrange(len(data))
    n = rng.choice([4, 64, 4096])
    return data[:a]+bytes([rng.choice([0, 255])])*min(n, len(data)-a)+data[a+n:]


def shift(rng, data):
    a = rng.randrange(len(data))
    put = bytes(rng.randrange(256) for _ in range(rng.choice([1, 7]))) if rng.random()<.5 else b''
    return data[:a]+put+data[a+1:]


def replace(rng, data):
    return rng.choice([b'', b'\n', b'<!doctype html><html></html>', b'version https://git-lfs.github.com/spec/v1\n',
                       bytes(rng.randrange(256) for _ in range(1000)), b'{}', b'[]', b'null', b'\x89PNG\r\n\x1a\n',
                       b'II*\0\x08\0\0\0', b'PK\3\4', b'\x80\4N.'])


ANY = [truncate, flip, flip, flip_head, flip_head, blank, shift, replace]


# ---- TIFF: a field of a directory

def _entries(data):
    "(offset, order, type, count, where its value is) of each entry of a classic TIFF, and where next pointers are"
    order = '<' if data[:2]==b'II' else '>'
    at, = struct.unpack_from(order+'I', data, 4)
    found, pointers, seen = [], [4], set()
    while at and at not in seen and at+2<len(data):
        seen.add(at)
        n, = struct.unpack_from(order+'H', data, at)
        found += [(at+2+12*i, order) for i in range(n)]
        pointers.append(at+2+12*n)
        at, = struct.unpack_from(order+'I', data, at+2+12*n)
    return found, pointers, order, sorted(seen)


def tiff_field(rng, data):
    if data[:4] not in (b'II*\0', b'MM\0*'): return flip_head(rng, data)
    found, pointers, order, seen = _entries(data)
    data = bytearray(data)
    if rng.random()<.15:
        struct.pack_into(order+'I', data, rng.choice(pointers), rng.choice([*seen, 0, len(data)-1, 2**32-1]))
        return bytes(data)
    at, _ = rng.choice(found)
    what, value = rng.choice([(0, 'H'), (2, 'H'), (4, 'I'), (8, 'I'), (8, 'I'), (8, 'I')]), 0
    value = rng.choice([0, 1, 3, 7, 2**8, 2**15, 2**16-1, 30000, 48000, 2**31-1, 2**32-1, rng.randrange(2**16)])
    struct.pack_into(order+what[1], data, at+what[0], value % (2**16 if what[1]=='H' else 2**32))
    return bytes(data)


# ---- tables and JSON

def table(rng, data):
    rows = list(csv.reader(io.StringIO(data.decode())))
    for _ in range(rng.choice([1, 1, 3])):
        r = rng.randrange(len(rows))
        c = rng.randrange(len(rows[r])) if rows[r] else 0
        how = rng.randrange(7)
        if how<=2 and rows[r]: rows[r][c] = str(rng.choice(VALUES))
        elif how==3: rows.insert(r, list(rows[r]))
        elif how==4: rows[r] = rows[r][:c]
        elif how==5: rows = [row[:c]+row[c+1:] for row in rows]
        else: rows[0][c % len(rows[0])] = rng.choice(rows[0])
    out = io.StringIO()
    csv.writer(out).writerows(rows)
    return out.getvalue().encode(errors='replace')


def _paths(o, path=()):
    yield path
    for k,v in (o.items() if isinstance(o, dict) else enumerate(o) if isinstance(o, list) else ()):
        yield from _paths(v, (*path, k))


def mutated(rng, o):
    "A JSON object with one or a few values replaced or left out"
    for _ in range(rng.choice([1, 1, 1, 4])):
        path = rng.choice(list(_paths(o)))
        if not path: continue
        at = o
        for k in path[:-1]: at = at[k]
        if rng.random()<.3: del at[path[-1]]
        else: at[path[-1]] = rng.choice(VALUES)
    return o


def as_json(rng, data): return json.dumps(mutated(rng, json.loads(data))).encode(errors='replace')


# ---- HDF5: an array or what it says of itself

def _fits(number, dtype): return number.bit_length()<8*dtype.itemsize


def h5_file(rng, path):
    import h5py
    import numpy as np
    with h5py.File(path, 'r+') as f:
        names = [k for k in f if isinstance(f.get(k, getlink=True), h5py.HardLink)]
        if rng.random()<.4 or not names:
            name = rng.choice(list(f.attrs))
            try: text = json.dumps(mutated(rng, json.loads(f.attrs[name])))
            except (ValueError, TypeError): text = rng.choice(['', '{}', 'x'])
            f.attrs[name] = text.replace('\\u0000', '')
            return
        name = rng.choice(names)
        a = f[name][()]
        del f[name]
        how = rng.randrange(9)
        if how==0: return
        if how==1: a = a[:-1]
        if how==2: a = a[...,None]
        if how==3: a = a.astype(rng.choice(['f8', 'i1', 'u8', 'S3', '?']))
        if how==4: a = a.reshape(-1)
        if how==5: a = np.full_like(a, rng.choice([-1, 0, 2**15]))
        if how==6 and a.dtype.kind in 'fi' and a.size:
            odd = [np.nan, np.inf, -1] if a.dtype.kind=='f' else [o for o in (-2**60, 2**60, -1) if _fits(o, a.dtype)]
            a.reshape(-1)[rng.randrange(a.size)] = rng.choice(odd)
        if how==7: a = a[:0]
        if how==8:
            f.create_dataset(name, shape=tuple(10**5 for _ in a.shape) or (10**9,), dtype=a.dtype, chunks=True)
            return
        f[name] = a


def weights_file(rng, data):
    "safetensors: its header"
    n, = struct.unpack_from('<Q', data)
    head = json.dumps(mutated(rng, json.loads(data[8:8+n]))).encode()
    return struct.pack('<Q', len(head)+rng.choice([0, 0, 0, 1, 10**9]))+head+data[8+n:]


BY_KIND = {'.tif': [*ANY, tiff_field, tiff_field, tiff_field, tiff_field], '.svs': [*ANY, tiff_field, tiff_field],
           '.csv': [*ANY, table, table, table, table, table], '.json': [*ANY, *[as_json]*8],
           '.geojson': [*ANY, *[as_json]*8], '.safetensors': [*ANY, weights_file, weights_file, weights_file]}


def mutate(path, seed):
    "Change a file in place; gives the name of what was done"
    rng, path = random.Random(seed), Path(path)
    if path.suffix=='.h5' and rng.random()<.7:
        h5_file(rng, path)
        return 'h5_file'
    how = rng.choice(BY_KIND.get(path.suffix, ANY))
    try: data = how(rng, path.read_bytes())
    except (ValueError, IndexError, struct.error): data = truncate(rng, path.read_bytes())
    path.write_bytes(data)
    return how.__name__
