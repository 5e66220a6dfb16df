"""How a child of the engine is born and what it may do: a fresh interpreter, a bare environment, hard limits.

Nothing of the parent's main module and none of its secrets reaches a child, and no child outlives its parent.
"""

from __future__ import annotations

import ctypes
import importlib
import io
import os
import resource
import signal
import subprocess
from multiprocessing import popen_spawn_posix, reduction, resource_tracker, spawn, util
from multiprocessing.context import SpawnContext, SpawnProcess, set_spawning_popen
from pathlib import Path
from typing import TYPE_CHECKING

from snapshed.engine.exchange import Exchange

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    from snapshed.engine.tasks import DiffResult, DiffTask, Limits

# What an interpreter may need to start. A list of what may pass, not of what may not: nobody can name every secret.
_PASSED_ON = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "PYTHONHOME", "PYTHONPATH", "LD_LIBRARY_PATH")
# One child works on one pair at a time on one core; the number of children is the number of cores in use.
_ONE_THREAD = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "RAYON_NUM_THREADS"), "1")
# glibc hands memory of a picture's size back to the kernel after each use, and clearing it anew for the next picture is
# a quarter of a pair's time; a child may keep this much.
_KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(128 << 20)}

_PR_SET_PDEATHSIG = 1


# --- In the parent -----------------------------------------------------------------------------


class _Popen(popen_spawn_posix.Popen):
    """The standard spawn, with three things it does not offer.

    The child's environment is chosen here: emptying it in the child leaves the strings readable in its memory. The
    parent's main module is not imported again: that is the whole service. And the child has its own process group, so
    that Ctrl-C reaches the parent alone.
    """

    _fds: list[int]
    _child: subprocess.Popen[bytes]

    def _launch(self, process_obj: BaseProcess) -> None:
        tracker = resource_tracker.getfd() or 0
        message = self._message(process_obj)
        sentinel, child_end = os.pipe()
        child_reads, writer = os.pipe()
        try:
            command = spawn.get_command_line(tracker_fd=tracker, pipe_handle=child_reads)
            inherited = [*self._fds, tracker, child_reads, child_end]
            # A mask survives the exec, so the child is deaf to Ctrl-C from its first instruction on.
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            try:
                self._child = subprocess.Popen(
                    command, env=environment(), pass_fds=inherited, stdin=subprocess.DEVNULL, process_group=0
                )
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            self.pid = self._child.pid
            self.sentinel = sentinel
            with open(writer, "wb", closefd=False) as pipe:
                pipe.write(message)
        finally:
            self.finalizer = util.Finalize(self, _close, (sentinel, writer))
            os.close(child_reads)
            os.close(child_end)

    def _message(self, process_obj: BaseProcess) -> memoryview:
        """What a spawned interpreter reads first: how to prepare, then what to run."""
        preparation = spawn.get_preparation_data(process_obj.name)
        for main in ("init_main_from_name", "init_main_from_path"):
            preparation.pop(main, None)
        message = io.BytesIO()
        set_spawning_popen(self)  # pyright: ignore[reportArgumentType]: the stub knows Windows' class alone
        try:
            reduction.dump(preparation, message)
            reduction.dump(process_obj, message)
        finally:
            set_spawning_popen(None)
        return message.getbuffer()

    def poll(self, flag: int = os.WNOHANG) -> int | None:
        """Ask `subprocess`, which also reaps: two reapers of one child would each believe the other."""
        if self.returncode is None:
            self.returncode = self._child.poll() if flag == os.WNOHANG else self._child.wait()
        return self.returncode


class _Process(SpawnProcess):
    @staticmethod
    def _Popen(process_obj: BaseProcess) -> _Popen:  # pyright: ignore[reportIncompatibleMethodOverride]: as above
        return _Popen(process_obj)


class Spawn(SpawnContext):
    """The context to give to a pool."""

    Process = _Process


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def environment() -> dict[str, str]:
    """The whole environment of a child."""
    return {name: os.environ[name] for name in _PASSED_ON if name in os.environ} | _ONE_THREAD | _KEEP_MEMORY


# --- In the child ------------------------------------------------------------------------------

_exchange: Exchange | None = None
_max_pixels = 0


def begin(parent: int, links: Path, limits: Limits) -> None:
    """Prepare the child before its first pair; imports the image libraries, then closes the door behind them."""
    global _exchange, _max_pixels
    _die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A Python handler would wait for the native code to return, which may be never.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    importlib.import_module("snapshed.engine.pair")  # before the memory limit, which counts from here
    _exchange = Exchange(links)
    _max_pixels = limits.max_pixels
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would keep images that somebody deletes
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + limits.memory_bytes, in_use + limits.memory_bytes))


def run(task: DiffTask) -> DiffResult:
    """Compare one pair. Named here, and not where it is done, so that the parent never imports the image libraries."""
    from snapshed.engine import pair  # noqa: PLC0415

    if _exchange is None:
        raise RuntimeError("the child has not begun")
    return pair.compare(task, _exchange, _max_pixels)


def _die_with(parent: int) -> None:
    """Ask the kernel to end this process with the thread that started it, even in the middle of native code."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before we asked
        os._exit(1)
