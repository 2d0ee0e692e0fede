"""What wakes the supervisor's loop: signals, children that end, probes that changed their mind.

A signal handler only notes the signal; the loop takes it up when it comes by.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
from collections import deque
from collections.abc import Iterable, Iterator

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""SIGHUP: the terminal went away."""
WALL_TIME_SIGNAL = signal.SIGUSR1
"""SLURM says that the wall time is near."""
RESTART_SIGNAL = signal.SIGUSR2


class Wakeups:
    """To be made and listened with in the main thread; ``wake`` may be called from any."""

    def __init__(self) -> None:
        self._signals: deque[int] = deque()
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def listen(self) -> None:
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in (*STOP_SIGNALS, WALL_TIME_SIGNAL, RESTART_SIGNAL):
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                continue  # nohup asked that the end of the terminal be ignored
            signal.signal(number, lambda received, frame: self._signals.append(received))
        signal.signal(signal.SIGCHLD, lambda received, frame: None)  # only to wake the loop

    def wake(self) -> None:
        try:
            os.write(self._write, b"w")
        except BlockingIOError:
            pass  # the pipe is full: the loop will wake anyway

    def wait(self, seconds: float) -> None:
        """Until something happens, but no longer than so many seconds."""
        select.select([self._read], [], [], seconds)
        try:
            while os.read(self._read, 4096):
                pass
        except BlockingIOError:
            pass  # emptied

    def signals(self) -> Iterator[signal.Signals]:
        """Those that came since the last call, in their order."""
        while self._signals:
            yield signal.Signals(self._signals.popleft())


def reap(children: Iterable[subprocess.Popen[bytes]]) -> None:
    """Collect every process that ended: the given children, and orphans that the kernel gave us as their subreaper.

    What a thread of ours runs (``squeue``) is in our own session, and the thread's to collect: of a process that somebody else has
    collected, ``subprocess`` says that it ended well.
    """
    mine = {child.pid: child for child in children}
    for child in mine.values():
        child.poll()
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is None:
                return
            if ended.si_pid in mine:
                mine.pop(ended.si_pid).poll()
            elif os.getsid(ended.si_pid) != os.getsid(0):
                os.waitpid(ended.si_pid, os.WNOHANG)
            else:
                return  # it is shown first until its thread has it; then come the others
        except ChildProcessError:
            return
        except ProcessLookupError:
            continue  # its thread was quicker
