"""Forked processes that end at a moment that is the same every time: a call of a function, or a use of a file."""

import errno
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType

TOUCHES = {"open", "os.rename", "os.remove", "os.mkdir", "os.truncate", "os.rmdir", "os.link", "os.symlink"}
"""Audit events of uses of files."""


def in_child(action: Callable[[], int], said: Path, *, seconds: float = 120, piped: bool = False) -> int:
    """Run something in a forked process.

    Args:
        action: Gives the exit status.
        said: A file for what it prints.
        seconds: How long it may take.
        piped: Let what it prints go through a pipe, which has no limit of a file.

    Returns:
        The exit status, or minus the number of the signal that ended it; 99 after an exception, which is printed.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    descriptor = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    reader = -1
    if piped:
        os.close(descriptor)
        reader, descriptor = os.pipe()
    child = os.fork()
    if child == 0:
        status = 99
        try:
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
            sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
            signal.signal(signal.SIGINT, signal.default_int_handler)
            status = action()
        except BaseException:
            traceback.print_exc()
        finally:
            sys.setprofile(None)
            try:
                sys.stdout.flush()
                sys.stderr.flush()
            finally:
                os._exit(status)
    os.close(descriptor)
    timer = threading.Timer(seconds, os.kill, (child, signal.SIGABRT))
    timer.start()
    try:
        if piped:
            with os.fdopen(reader, "rb") as pipe:
                said.write_bytes(pipe.read())
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    finally:
        timer.cancel()


def at_call(number: int, act: Callable[[], object]) -> Callable[[], int]:
    """Do something at a call of a Python function, counted from 1 in this thread; how many there were is returned."""
    count = 0

    def profile(frame: FrameType, event: str, _: object) -> None:
        nonlocal count
        if event == "call":
            count += 1
            if count == number:
                act()

    sys.setprofile(profile)
    return lambda: count


def at_touch(number: int, folder: Path, act: Callable[[str], object], *, name: str = "") -> Callable[[], int]:
    """Do something before a file in a folder is written, removed or renamed, counted from 1; how many there were.

    Audit hooks stay for the life of a process: call this in a child.

    Args:
        number: Which of them.
        folder: Where.
        act: What to do; takes the path.
        name: Count only paths that contain this.
    """
    count = 0
    below = f"{folder}{os.sep}"

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal count
        if event not in TOUCHES or not arguments or not str(arguments[0]).startswith(below):
            return
        if name not in str(arguments[0]) or (event == "open" and not _writes(arguments)):
            return
        count += 1
        if count == number:
            act(str(arguments[0]))

    sys.addaudithook(hook)
    return lambda: count


def _writes(arguments: tuple[object, ...]) -> bool:
    flags = arguments[2]
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


def die(_: object = None) -> None:
    """As kill -9."""
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def interrupt() -> None:
    """As Ctrl-C."""
    os.kill(os.getpid(), signal.SIGINT)


def no_space(path: str) -> None:
    """Raises what a full disk does."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
