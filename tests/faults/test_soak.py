"""A viewer that is used for a long time: `pytest -m faults tests/faults/test_soak.py`, five minutes, or as many seconds
as `SOAK_SECONDS` says"""
import http.client
import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

server = """
import sys, time
from pathlib import Path
from hipt_nb.slide import Slide
from hipt_nb.viewer import PageSource, build_viewer, reopen, serve
folder = Path(sys.argv[1])
with Slide(folder/'phantom.tif') as s:
    build_viewer(s, [], folder/'pages'/'phantom', live=True)
    server = serve(folder/'pages', block=False, sources={'phantom': PageSource(reopen(s), folder/'notes.geojson')})
    print(server.server_port, flush=True)
    sys.stdin.read()
"""


def use(port, seed, until, seen):
    "One client: tiles, the session, notes that come, change and go, pages of elsewhere, dropped connections"
    rng, c, page = random.Random(seed), None, f'client{seed}'
    turn, mine = 0, {}
    while time.time() < until:
        c = c or http.client.HTTPConnection('127.0.0.1', port, timeout=30)
        what = rng.random()
        if what < .8:
            level = rng.randrange(4)
            c.request('GET', f'/phantom/tiles/{level}/{rng.randrange(2**level)}_{rng.randrange(2**level)}.jpg')
            ok, body = (200,), c.getresponse()
        elif what < .85:
            c.request('GET', '/phantom/session.json')
            ok, body = (200,), c.getresponse()
        elif what < .95:
            key, turn = f'{page}-{rng.randrange(20)}', turn+1
            x, y = rng.randrange(3000), rng.randrange(3000)
            change = dict(id=key, base=mine.get(key), ring=[[x, y]], name='Relevant', color=[0, 114, 178], text='n'*99)
            if key in mine and rng.random() < .4: change = dict(id=key, base=mine.pop(key), gone=True)
            text = json.dumps(dict(changes=[change], page=page, turn=turn))
            c.request('POST', '/phantom/notes', text, {'X-HIPT-Token': seen['token']})
            ok, body = (200,), c.getresponse()
        elif what < .98:
            c.request('GET', '/phantom/', headers={'Origin': 'https://evil.example'})
            ok, body = (403,), c.getresponse()
        else:
            with socket.create_connection(('127.0.0.1', port)) as hasty:
                hasty.sendall(b'GET /phantom/openseadragon.min.js HTTP/1.1\r\nHost: localhost\r\n\r\n')
            continue
        data = body.read()
        if body.status not in ok: seen['wrong'].append((what, body.status, data[:200]))
        elif ok == (200,) and .85 <= what < .95:
            mine.update({n['id']: n['version'] for n in json.loads(data)['notes'] if n['id'].startswith(page+'-')})
        seen['requests'] += 1
        if body.will_close or rng.random() < .05:
            c.close()
            c = None


def use_and_tell(port, seed, until, seen):
    try: use(port, seed, until, seen)
    except Exception as e: seen['wrong'].append((seed, repr(e)))


@pytest.mark.faults
def test_a_viewer_that_is_used_for_long(tmp_path):
    "Four clients at once: right answers; bounded memory, files and threads; only this machine hears it"
    from hipt_nb.phantom import make_slide
    seconds = float(os.environ.get('SOAK_SECONDS', 300))
    make_slide(tmp_path/'phantom.tif', label='glandular', seed=3, size=4096)
    pipes = dict.fromkeys(('stdin', 'stdout', 'stderr'), subprocess.PIPE)
    p = subprocess.Popen([sys.executable, '-c', server, str(tmp_path)], **pipes, text=True)
    proc = Path(f'/proc/{p.pid}')
    try:
        port = int(p.stdout.readline())
        c = http.client.HTTPConnection('127.0.0.1', port)
        c.request('GET', '/phantom/session.json')
        seen = dict(token=json.loads(c.getresponse().read())['token'], wrong=[], requests=0)
        c.close()
        until, rows = time.time()+seconds, []
        clients = [threading.Thread(target=use_and_tell, args=(port, k, until, seen)) for k in range(4)]
        for t in clients: t.start()
        while time.time() < until:
            time.sleep(min(1, seconds/40))
            status = dict(l.split(':', 1) for l in (proc/'status').read_text().splitlines())
            memory, files = int(status['VmRSS'].split()[0])/1024, len(list((proc/'fd').iterdir()))
            rows.append((memory, files, int(status['Threads'])))
        for t in clients: t.join(60)
        sockets = [l.split() for l in Path('/proc/net/tcp').read_text().splitlines()[1:]]
        heard = {o[1].split(':')[0] for o in sockets if o[1].endswith(f':{port:04X}') and o[3] == '0A'}
    finally:
        p.stdin.close()
        p.wait(20)
    n = len(rows)//4
    quarters = [[round(max(r[k] for r in rows[i*n:(i+1)*n])) for i in range(4)] for k in range(3)]
    print(dict(requests=seen['requests'], memory_mb=quarters[0], files=quarters[1], threads=quarters[2]))
    assert seen['wrong'] == [] and p.stderr.read() == ''
    assert heard == {'0100007F'}
    memory, files, threads = quarters
    assert memory[3] < 1.05*memory[1]+8
    assert max(files) < 60 and max(threads) < 40
