"""Runs `hipt`, or a few lines of Python, again and again without starting Python anew: a line of JSON in, one out. Each
call is a process of its own, with limits on its memory and time."""
import json
import os
import resource
import signal
import sys
import time
from pathlib import Path


def reads(code):
    "A few lines that read a file, in place of a command"
    from hipt_nb.core import HIPTError
    try: exec(code, {})
    except HIPTError as e:
        print(f'hipt: {e}', file=sys.stderr)
        sys.exit(1)


WRITES = 'os.rename', 'os.remove', 'os.mkdir', 'os.rmdir', 'os.truncate', 'os.chmod'


def dies_at(step, folder, steps):
    """End as by SIGKILL just before the process changes a file below a folder for the n-th time; counts the times in a
    file"""
    done = []

    def hook(event, args):
        if event=='open': changes = isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)
        else: changes = event in WRITES
        if not changes or not isinstance(args[0], (str, bytes, os.PathLike)): return
        if not os.path.abspath(os.fsdecode(args[0])).startswith(folder): return
        if len(done)==step: os.kill(os.getpid(), signal.SIGKILL)
        done.append(event)
        os.ftruncate(steps, 0)
        os.pwrite(steps, str(len(done)).encode(), 0)
    sys.addaudithook(hook)


def run(call):
    pid = os.fork()
    if not pid:
        os.setsid()
        os.chdir(call['cwd'])
        for fd, name in ((1, 'stdout'), (2, 'stderr')): os.dup2(os.open(call[name], os.O_WRONLY | os.O_CREAT), fd)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        status = Path('/proc/self/status').read_text().splitlines()
        vm = next(int(l.split()[1]) for l in status if l.startswith('VmSize'))
        resource.setrlimit(resource.RLIMIT_AS, (vm*1024+call['memory'],)*2)
        if 'largest' in call: resource.setrlimit(resource.RLIMIT_FSIZE, (call['largest'],)*2)
        sys.argv = ['hipt', *call.get('args', ())]
        sys.stdout, sys.stderr = open(1, 'w', closefd=False), open(2, 'w', closefd=False)
        code = 0
        if 'step' in call:
            dies_at(call['step'], os.path.join(call['cwd'], 'run'), os.open(call['steps'], os.O_RDWR | os.O_CREAT))
        try: reads(call['python']) if 'python' in call else main()
        except SystemExit as e: code = e.code if isinstance(e.code, int) else int(e.code is not None)
        except BaseException:
            import traceback
            traceback.print_exc()
            code = 99
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(code)
    end = time.time()+call['seconds']
    while time.time()<end:
        done, status, usage = os.wait4(pid, os.WNOHANG)
        if done: break
        time.sleep(.01)
    else:
        os.killpg(pid, signal.SIGKILL)
        os.wait4(pid, 0)
        return dict(rc='hang')
    return dict(rc=os.waitstatus_to_exitcode(status), memory=usage.ru_maxrss//1024)


if __name__=='__main__':
    answers = os.fdopen(os.dup(1), 'w')
    os.dup2(2, 1)
    import importlib
    import pkgutil
    import hipt_nb
    others = ('cv2 h5py matplotlib.pyplot openslide pandas PIL.Image safetensors.torch scipy.stats shapely.ops '
              'sklearn.model_selection sklearn.linear_model tifffile torch').split()
    for name in (*others, *(f'hipt_nb.{m.name}' for m in pkgutil.iter_modules(hipt_nb.__path__))):
        importlib.import_module(name)  # everything that a command would load
    from hipt_nb.cli import main
    for line in sys.stdin: print(json.dumps(run(json.loads(line))), file=answers, flush=True)
