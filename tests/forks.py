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


class Forks:
    """Starts processes, and waits for them.

    `program` defines `start(words)`, which returns a list of functions, one for each process to
    start, and `started()`, which the first process calls after it has started them.
    """

    def __init__(self, program, *words):
        paths = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
        command = [sys.executable, "-c", program + LOOP, *map(str, words)]
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
