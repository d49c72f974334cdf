"""Where the work of a run is done: in this process, in others on this machine, or on a cluster."""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from ..errors import TritError

Key = TypeVar("Key")
Result = TypeVar("Result")
Task = tuple[Key, Callable[..., Result], tuple[Any, ...]]  # a name for the result, a function, its arguments

STARTING = 5  # seconds that dask workers have to appear
AGAIN = "run the same command again to go on"


class Inline(Executor):
    """Does the work where it is submitted: one worker, and no process for it."""

    def submit(self, fn: Callable[..., Result], /, *args: Any, **kwargs: Any) -> Future[Result]:
        """The result of fn, which is there when this returns."""
        future: Future[Result] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


class _Processes(ProcessPoolExecutor):
    """Processes that SIGINT reaches in a task only: elsewhere, as in imports, it would be a traceback."""

    def submit(self, fn: Callable[..., Result], /, *args: Any, **kwargs: Any) -> Future[Result]:
        """The future result of fn; what processes this starts have SIGINT blocked."""
        if not hasattr(signal, "pthread_sigmask"):  # Windows
            return super().submit(fn, *args, **kwargs)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        try:
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # may raise KeyboardInterrupt
            return super().submit(_interruptible, fn, *args, **kwargs)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _interruptible(fn: Callable[..., Result], /, *args: Any, **kwargs: Any) -> Result:
    """In a worker: the result of fn; KeyboardInterrupt goes to the parent, as any error does."""
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        return fn(*args, **kwargs)
    except KeyboardInterrupt:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        signal.raise_signal(signal.SIGINT)  # for the next task, which waits here already
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


@contextlib.contextmanager
def workers(count: int = 1, dask: str | None = None) -> Iterator[tuple[Executor, int]]:
    """An executor, and how many tasks it works on at once: processes here, or those of a dask scheduler."""
    if dask is not None:
        with _dask(dask) as found:
            yield found
    elif count == 1:
        yield Inline(), 1
    else:
        # Spawned: a fork of a process with threads may hang. They end with the process that made them.
        context = multiprocessing.get_context("spawn")
        with _Processes(count, context, initializer=_end_with_parent) as pool:
            yield pool, count


def run_all(
    executor: Executor, width: int, tasks: Iterable[Task[Key, Result]]
) -> Iterator[tuple[Key, Result]]:
    """The results of *tasks*, as they come; no more than two for each of *width* workers are under way.

    Raises what a task raises, and ChildProcessError where a worker died.
    """
    waiting: dict[Future[Result], Key] = {}
    tasks = iter(tasks)
    try:
        while True:
            for key, function, arguments in tasks:
                waiting[executor.submit(function, *arguments)] = key
                if len(waiting) >= 2 * width:
                    break
            if not waiting:
                return
            done, _ = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                key = waiting.pop(future)
                yield key, future.result()
    except BrokenProcessPool:
        message = f"a worker process died, perhaps for want of memory; {AGAIN}"
        raise ChildProcessError(message) from None
    finally:
        for future in waiting:
            future.cancel()


def announced(
    tasks: Iterable[Task[Key, Result]], announce: Callable[[Task[Key, Result]], None]
) -> Iterator[Task[Key, Result]]:
    """*tasks*, each announced before the one that comes before it is given: what it reads may be fetched."""
    before: list[Task[Key, Result]] = []
    for task in tasks:
        announce(task)
        yield from before
        before = [task]
    yield from before


def _end_with_parent() -> None:
    """In a worker: end when the process that made it does, even where that was killed."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextlib.contextmanager
def _dask(address: str) -> Iterator[tuple[Executor, int]]:
    try:
        import distributed
    except ImportError:
        raise TritError("--dask needs dask.distributed: pip install 'tritcodec[dask]'") from None
    try:
        client = distributed.Client(address)
    except (OSError, ValueError) as error:  # no scheduler there, or no address
        raise OSError(errno.ECONNREFUSED, f"no dask scheduler: {error}", address) from None
    place = f"the dask scheduler at {address}"
    try:
        with client:
            try:
                client.wait_for_workers(1, timeout=STARTING)
            except distributed.TimeoutError:
                start = f"start some with: dask worker {address}"
                raise TimeoutError(f"{place} has no workers; {start}") from None
            yield client.get_executor(), max(1, sum(client.nthreads().values()))
    except (CancelledError, distributed.KilledWorker):
        message = f"{place}, or a worker of it, died; {AGAIN}"
        raise ChildProcessError(message) from None
