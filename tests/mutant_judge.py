"""Run tests on mutants: the warm parent and its children, for `mutants.py`.

The tests run in a copy of the project with the mutated file, and each mutant gets a child of
`fork`. A first child, without a mutant, finds out how long each test takes and which functions it
calls; the result is kept. A mutant is judged by the tests that call the function it changes, and by
all tests if it changes none (a constant). Tests that start processes always count, as their calls
cannot be seen. Tests that killed a mutant of this file go first, then quick ones. A test that takes
much longer than without the mutant counts as failed.

Most of the time would go into imports. So a mutant inside a function is tried in a child of a
process that has imported minires and collected the tests: the child replaces the code of that
function in memory (mutant_patches.py). All others get a child of a process that has imported what
the tests need, except minires: mutants of constants, default values, decorators and compiled files,
and those of functions that an import calls.
"""

import ast
import contextlib
import importlib
import json
import os
import re
import resource
import shutil
import signal
import sys
import threading
import time
import traceback
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import settings
from mutant_patches import Unpatchable, changed_code, patch

SETTINGS = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "passive",
    "MINIRES_HYPOTHESIS": "mutants",
    "PYTHONDONTWRITEBYTECODE": "1",  # for processes that the tests start
}
WARM = "numpy numba matplotlib.pyplot hypothesis pytest safetensors.numpy PIL.Image typer pooch"
PARTS = ("minires", "tests", "lessons", "pyproject.toml", "README.md", "CHANGELOG.md", "LOG.md")
TIMES, AT_LEAST = 10, 20  # a test may take ten times as long as without a mutant, and 20 seconds
COMPILING = 200  # seconds for a mutant of compiled code, which the first test has to compile
FEW = 4  # examples of each property in the run without a mutant
MEMORY = 16 << 30  # bytes of addresses
KERNELS = "minires.ops.compiled.kernel_cache"
WARNED = "ignore::pytest.PytestAssertRewriteWarning"  # the parent has imported hypothesis
ALL = "all"  # the function name of mutants outside functions
NOT_PATCHED = 77  # the exit code of a child that could not replace the code of a function


@contextlib.contextmanager
def copies_of(root, number, folder):
    """Copy the project for each job into a folder, and remove the copies at the end.

    The same folder each time lets compiled code be found on disk: its name has the path in it.
    """
    with FileLock(folder.with_suffix(".lock"), timeout=0):
        shutil.rmtree(folder, ignore_errors=True)
        copies = [folder / str(i) for i in range(number)]
        for copy in copies:
            copy.mkdir(parents=True)
            for part in filter(Path.exists, (root / name for name in PARTS)):
                if part.is_dir():
                    ignored = shutil.ignore_patterns("__pycache__")
                    shutil.copytree(part, copy / part.name, ignore=ignored)
                else:
                    shutil.copy(part, copy)
        os.environ.update(SETTINGS)
        for name in WARM.split():
            importlib.import_module(name)
        try:
            yield copies
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def function_spans(source):
    """Return (first line, last line) of each function, the decorators included."""
    spans = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
            body = node.body[0].lineno
            spans.append((first, node.end_lineno, body))
    return spans


class Judge:
    """The tests of one file, and what they do without a mutant."""

    def __init__(self, file, alike, tests, deselect, copies, kept):
        """Run the tests without a mutant, or read what an earlier run has `kept`, a JSON file.

        `alike` are the files that the same tests judge; one run serves them all.
        """
        self.file, self.copies = file, copies
        self.tests = [test.name for test in tests]
        self.source = (copies[0] / file).read_text(encoding="utf-8")
        self.spans = function_spans(self.source)
        if not kept.exists():
            self._measure(Measured(copies[0], alike, kept, deselect))
        measured = json.loads(kept.read_text(encoding="utf-8"))
        for name in measured["modules"]:
            with contextlib.suppress(Exception):
                importlib.import_module(name)
        self.kernels = measured["kernels"]
        self.seconds, self.blind = measured["seconds"], set(measured["blind"])
        self.imported = {line for called, line in measured["imported"] if called == file}
        self.deselect = deselect
        self.callers = defaultdict(set)
        for test, functions in measured["calls"].items():
            for called, line in functions:
                if called == file:
                    self.callers[line].add(test)

    def _measure(self, plugin):
        pid = self._start(self.copies[0], plugin)
        try:
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        except BaseException:
            os.killpg(pid, signal.SIGKILL)
            raise
        if code:
            plugin.result.unlink(missing_ok=True)
            log = (self.copies[0] / "log").read_text(encoding="utf-8", errors="replace")
            raise SystemExit(f"{log}\nthe tests of {self.file} fail without a mutant")

    def selected(self, mutant):
        """Return the tests that call the function which a mutant changes."""
        inside = [s for s in self.spans if s[0] <= mutant.line <= s[1]]
        if not inside:
            return set(self.seconds)
        first, _, body = max(inside)
        called = self.callers.get(first, set())
        if mutant.line < body or not called:  # a default value or a decorator, or called at import
            return set(self.seconds)
        return called | self.blind

    def tried(self, mutants, killers):
        """Yield mutant, outcome, the test that decided and seconds, as the children end."""
        near, decided = defaultdict(Counter), set()
        try:
            for tried in (self._patched, self._imported):
                left = [m for m in mutants if m not in decided]
                for mutant, outcome, by, seconds in tried(left, killers, near):
                    decided.add(mutant)
                    yield mutant, outcome, by, seconds
        finally:
            for copy in self.copies:
                self._write(copy, self.source)

    def _count(self, mutant, by, killers, near):
        killers[by] += 1
        near[self._function(mutant)][by] += 1

    def _patched(self, mutants, killers, near):
        """Try mutants whose code can be replaced, in children of one process."""
        mutants = [m for m in mutants if self._can_be_patched(m)]
        if not mutants:
            return
        read, write = os.pipe()
        pid = self._start(self.copies[0], Serving(self, mutants, killers, near, write))
        os.close(write)
        try:
            with os.fdopen(read, encoding="utf-8") as results:
                for line in results:
                    i, outcome, by, seconds = json.loads(line)
                    self._count(mutants[i], by, killers, near)
                    yield mutants[i], outcome, by, seconds
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGTERM)
            os.waitpid(pid, 0)

    def _can_be_patched(self, mutant):
        path = Path(self.file)
        if "compiled" in path.parts or path.name.startswith("numba_"):
            return False
        inside = [s for s in self.spans if s[0] <= mutant.line <= s[1]]
        if not inside or mutant.line < max(inside)[2] or self.imported & {s[0] for s in inside}:
            return False
        return bool(changed_code(self.source, mutant.source))

    def _imported(self, mutants, killers, near):
        """Try mutants in children that import the mutated file."""
        waiting, running = list(mutants)[::-1], {}
        try:
            while waiting or running:
                free = [c for c in self.copies if c not in {r[0] for r in running.values()}]
                while waiting and free:
                    mutant, copy = waiting.pop(), free.pop()
                    order = self._ordered(mutant, killers, near)
                    pid = self._try(mutant, copy, order)
                    running[pid] = copy, mutant, time.monotonic()
                pid, status = os.wait()
                if pid not in running:
                    continue
                copy, mutant, start = running.pop(pid)
                end(pid)
                outcome, by = verdict(status, copy)
                self._count(mutant, by, killers, near)
                yield mutant, outcome, by, time.monotonic() - start
        finally:
            for pid in running:
                end(pid)

    def _function(self, mutant):
        return max((s for s in self.spans if s[0] <= mutant.line <= s[1]), default=ALL)

    def _ordered(self, mutant, killers, near):
        here = near[self._function(mutant)]
        tests = self.selected(mutant)
        return sorted(
            tests, key=lambda t: (-here[t], -killers[t] / (1 + self.seconds[t]), self.seconds[t])
        )

    def _write(self, copy, source):
        path = copy / self.file
        path.write_text(source, encoding="utf-8")
        for stale in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
            stale.unlink()

    def _try(self, mutant, copy, order):
        self._write(copy, mutant.source)
        (copy / "decided").unlink(missing_ok=True)
        compiled = "compiled" in Path(self.file).parts or "numba" in Path(self.file).stem
        least = COMPILING if compiled else AT_LEAST
        plugin = Limited(order, self.seconds, copy / "decided", least)
        plugin.kernels = self.kernels
        if "compiled" in Path(self.file).parts:
            plugin.kernels = kernels_beside(self.kernels, copy, self.file)
        return self._start(copy, plugin)

    def _start(self, copy, plugin):
        """Fork a child that runs pytest in a copy; return its process id."""
        pid = os.fork()
        if pid:
            return pid
        code = 3
        try:
            os.setsid()
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            code = self._pytest(copy, plugin)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _pytest(self, copy, plugin):
        os.chdir(copy)
        sys.path[:0] = [str(copy)]
        os.environ["PYTHONPATH"] = str(copy)
        log = os.open(copy / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        options = ["-x", "-q", "-n", "0", "-p", "no:cacheprovider", "--tb", "line", "-W", WARNED]
        tests = plugin.files() or [f"tests/{name}" for name in self.tests]
        plugin.prepare()
        return int(pytest.main([*options, *tests], plugins=[plugin]))


def end(pid):
    """End what the tests of a child started and left."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def kernels_beside(folder, copy, file):
    """Copy the kernels of a folder, without those that a mutant of a file may change.

    These are the kernels of the file, and of files that import it: helpers are inlined.
    """
    stem, ops = Path(file).stem, copy / "minires/ops"
    changed, found = {stem}, True
    while found:
        sources = {p.stem: p.read_text(encoding="utf-8") for p in ops.rglob("*.py")}
        words = re.compile(rf"^(from|import) .*\b({'|'.join(changed)})\b", re.M)
        found = {name for name, text in sources.items() if words.search(text)} - changed
        changed |= found
    target = copy.parent / f"kernels-{copy.name}"
    shutil.rmtree(target, ignore_errors=True)
    for path in Path(folder).rglob("*.nb[ic]"):
        if path.name.split(".")[0] not in changed:
            place = target / path.relative_to(folder)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, place)
    return str(target)


def verdict(status, copy):
    """Return the outcome and the test that decided."""
    decided = copy / "decided"
    by = decided.read_text(encoding="utf-8") if decided.exists() else ""
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM:
        return "timeout", by
    return ("survived", "") if status == 0 else ("killed", by or "import")


class Plugin:
    """Base of both kinds of children."""

    def files(self):
        return []

    def prepare(self):
        """Prepare the child."""


class Measured(Plugin):
    """Note how long each test takes, and which functions of some files it calls."""

    def __init__(self, copy, files, result, deselect):
        self.result, self.deselect = result, deselect
        self.watched = {str(copy / file): file for file in files}
        self.seconds, self.calls, self.blind = {}, {}, set()
        self.by_fixture = defaultdict(set)
        self.now = [set()]
        sys.addaudithook(self._heard)

    def _heard(self, event, _):
        if event in ("subprocess.Popen", "os.fork", "os.posix_spawn") and self.now[-1:]:
            self.now[-1].add("process")

    def _called(self, frame, event, _):
        if event == "call" and frame.f_code.co_filename in self.watched:
            code = frame.f_code
            self.now[-1].add((self.watched[code.co_filename], code.co_firstlineno))

    def prepare(self):
        """Trace from the imports of conftest.py on."""
        sys.settrace(self._called)
        threading.settrace(self._called)

    def pytest_sessionstart(self):
        # tracing is slow, and a few examples call the functions that many call
        few = settings(settings.get_profile("mutants"), max_examples=FEW)
        settings.register_profile("measured", few)
        settings.load_profile("measured")

    def pytest_collection_modifyitems(self, items):
        if self.deselect:
            items[:] = [item for item in items if not re.search(self.deselect, item.nodeid)]

    @pytest.hookimpl(hookwrapper=True)
    def pytest_fixture_setup(self, fixturedef):
        self.now.append(self.by_fixture[fixturedef.argname])
        yield
        self.now.pop()

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item):
        calls = set()
        self.now.append(calls)
        sys.settrace(self._called)
        start = time.monotonic()
        yield
        self.now.pop()
        self.seconds[item.nodeid] = time.monotonic() - start
        used = calls.union(*(self.by_fixture[name] for name in item.fixturenames))
        if "process" in used:
            self.blind.add(item.nodeid)
        self.calls[item.nodeid] = sorted(used - {"process"})

    def pytest_sessionfinish(self):
        sys.settrace(None)
        measured = {"seconds": self.seconds, "calls": self.calls, "blind": sorted(self.blind)}
        measured["imported"] = sorted(self.now[0] - {"process"})
        here = str(Path.cwd())
        measured["modules"] = [
            name
            for name, m in [*sys.modules.items()]
            if m is not None and not (getattr(m, "__file__", None) or here).startswith(here)
        ]
        measured["kernels"] = importlib.import_module(KERNELS).cache_folder()
        self.result.write_text(json.dumps(measured), encoding="utf-8")


class Limited(Plugin):
    """Run chosen tests in a given order, each within a time limit."""

    def __init__(self, order, seconds, decided, least=AT_LEAST):
        self.order = {test: i for i, test in enumerate(order)}
        self.seconds, self.decided, self.least = seconds, decided, least
        signal.signal(signal.SIGALRM, signal.SIG_DFL)

    def files(self):
        return sorted({test.split("::")[0] for test in self.order})

    def prepare(self):
        """Use the compiled code on disk: its name is a digest of all ops, with the mutant in it."""
        if self.kernels:
            importlib.import_module(KERNELS).cache_folder = lambda: self.kernels

    def pytest_sessionstart(self):
        signal.setitimer(signal.ITIMER_REAL, 3 * self.least)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items):
        items[:] = [item for item in items if item.nodeid in self.order]
        items.sort(key=lambda item: self.order[item.nodeid])

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item):
        self.decided.write_text(item.nodeid, encoding="utf-8")
        signal.setitimer(signal.ITIMER_REAL, self.least + TIMES * self.seconds[item.nodeid])
        yield
        signal.setitimer(signal.ITIMER_REAL, self.least)


class Serving(Plugin):
    """Collect the tests once, and run chosen ones for each mutant in a child."""

    def __init__(self, judge, mutants, killers, near, write):
        self.judge, self.mutants, self.write = judge, mutants, write
        self.killers, self.near = killers, near

    def prepare(self):
        """Take compiled code from the disk, as every mutant leaves it as it is."""
        importlib.import_module(KERNELS).cache_folder = lambda: self.judge.kernels

    def pytest_collection_modifyitems(self, items):
        if self.judge.deselect:
            items[:] = [item for item in items if not re.search(self.judge.deselect, item.nodeid)]

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session):
        judge, copy, pid = self.judge, self.judge.copies[0], None

        def stop(*_):
            end(pid)
            os._exit(1)

        for i, mutant in enumerate(self.mutants):
            order = judge._ordered(mutant, self.killers, self.near)
            (copy / "decided").unlink(missing_ok=True)
            judge._write(copy, mutant.source)  # for processes that the tests start
            start = time.monotonic()
            pid = os.fork()
            if pid == 0:
                return self._child(session, mutant, order)
            signal.signal(signal.SIGTERM, stop)
            status = os.waitpid(pid, 0)[1]
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            end(pid)
            if status == NOT_PATCHED << 8:
                continue
            outcome, by = verdict(status, copy)
            judge._count(mutant, by, self.killers, self.near)
            result = [i, outcome, by, time.monotonic() - start]
            os.write(self.write, f"{json.dumps(result)}\n".encode())
        return True  # the loop over tests has ended

    def _child(self, session, mutant, order):
        """Replace the code of the mutated function; return None, so that pytest runs the tests."""
        os.setsid()
        try:
            patch(self.judge.copies[0] / self.judge.file, self.judge.source, mutant.source)
        except Unpatchable:
            os._exit(NOT_PATCHED)
        limited = Limited(order, self.judge.seconds, self.judge.copies[0] / "decided")
        session.config.pluginmanager.register(limited)
        limited.pytest_sessionstart()
        limited.pytest_collection_modifyitems(session.items)
