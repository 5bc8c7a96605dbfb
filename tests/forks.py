"""Starts processes by fork from one that has imported everything, so that they work at once.

The program reads a line for each start, and forks. Nothing in it may have started threads.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

LOOP = """
import os, sys
for line in sys.stdin:
    word, _, rest = line.strip().partition(" ")
    if word == "wait":
        print(os.waitstatus_to_exitcode(os.waitpid(int(rest), 0)[1]), flush=True)
        continue
    works = start(rest)
    pids = []
    for work in works:
        pids.append(os.fork())
        if not pids[-1]:
            code = 1
            try:
                work()
                code = 0
            finally:
                os._exit(code)
    started()
    print(*pids, flush=True)
"""


def host(name, seconds):
    """Words of a command that another one follows: run it on a host of its own.

    The host has a name, a network without connections, and a monotonic clock that is some seconds
    ahead. It shares the disk with the others.
    """
    spaces = ["unshare", "--user", "--map-root-user", "--net", "--uts", "--time", "--fork"]
    clocks = ["--monotonic", str(seconds), "--boottime", str(seconds)]
    return [*spaces, *clocks, "sh", "-c", 'hostname "$0" && exec "$@"', name]


def why_no_hosts():
    """The reason why this system has no hosts for tests, "" if it has."""
    try:
        done = subprocess.run([*host("a", 1), "true"], capture_output=True, text=True, check=False)
    except OSError as e:
        return f"needs unshare: {e}"
    return f"needs namespaces: {done.stderr.strip()}" if done.returncode else ""


class Forks:
    """Starts processes, and waits for them.

    `program` defines `start(words)`, which returns a list of functions, one for each process to
    start, and `started()`, which the first process calls after it has started them. `prefix` are
    words before the command of that process, see `host`.
    """

    def __init__(self, program, *words, prefix=()):
        paths = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
        command = [*prefix, sys.executable, "-c", program + LOOP, *map(str, words)]
        self.process = subprocess.Popen(
            command,
            env=os.environ | {"PYTHONPATH": paths, "OPENBLAS_NUM_THREADS": "1"},
            bufsize=1,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def _ask(self, words):
        self.process.stdin.write(f"{words}\n")
        return list(map(int, self.process.stdout.readline().split()))

    def start(self, words):
        """Numbers of the processes that were started."""
        return self._ask(f"start {words}")

    def wait(self, pid):
        """The exit code of one of them."""
        return self._ask(f"wait {pid}")[0]

    def kill(self, pid):
        """Kill one of them; return its exit code."""
        os.kill(pid, signal.SIGKILL)
        return self.wait(pid)
