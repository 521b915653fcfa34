"""Takes away from Python, as it starts, what another system does not have (EMA_SYSTEM: windows or darwin).

Python imports a module of this name by itself, so a folder with it on PYTHONPATH changes a command and all
processes that it starts. What the standard library itself cannot do without is loaded first.
"""

from __future__ import annotations

import os
import sys

SYSTEM = os.environ.get("EMA_SYSTEM", "")
NOT_ON_WINDOWS = {
    "modules": "fcntl resource pty termios tty grp pwd syslog curses",
    "os": """fork forkpty fchown fchmod chown lchown getuid geteuid getgid getegid setuid setsid getpgid
        killpg mkfifo mknod pread pwrite preadv pwritev sched_getaffinity sched_setaffinity wait3 wait4
        WNOHANG posix_fallocate posix_fadvise sendfile copy_file_range memfd_create sysconf
        statvfs fstatvfs uname
        register_at_fork O_NOFOLLOW O_DIRECTORY O_CLOEXEC O_NONBLOCK O_SYNC openpty ttyname splice nice
        posix_spawn process_cpu_count""",
    "signal": """SIGHUP SIGPIPE SIGKILL SIGQUIT SIGUSR1 SIGUSR2 SIGCHLD SIGALRM SIGCONT SIGSTOP SIGTSTP
        SIGTTIN SIGTTOU pthread_sigmask pthread_kill sigwait sigpending alarm setitimer getitimer siginterrupt
        pause""",
    "select": "poll epoll",
}
NOT_ON_DARWIN = {
    "modules": "",
    "os": """sched_getaffinity sched_setaffinity posix_fallocate posix_fadvise memfd_create copy_file_range
        splice""",
    "signal": "",
    "select": "epoll",
}


def take_away(missing: dict[str, str]) -> None:
    """Delete these names, and let these modules be no modules."""
    import select
    import signal
    import subprocess  # noqa: F401 - it looks for Windows' modules when it is imported, and finds none
    import sysconfig
    import tempfile  # noqa: F401 - needs O_NOFOLLOW as it is here

    sysconfig.get_config_vars()  # is read from a file that is named after the system

    for module in (os, signal, select):
        for name in missing[module.__name__].split():
            if hasattr(module, name):
                delattr(module, name)
    if hasattr(os, "process_cpu_count"):  # from Python 3.13 on, made of what was there when it was imported
        os.process_cpu_count = os.cpu_count
    for name in missing["modules"].split():
        sys.modules[name] = None  # type: ignore[assignment]


def be_windows() -> None:
    """As far as it can be had on another system: locks, open files, sockets, text streams."""
    import errno
    import fcntl
    import select
    import signal
    import types

    flock, exclusive, no_hang = fcntl.flock, fcntl.LOCK_EX | fcntl.LOCK_NB, os.WNOHANG
    take_away(NOT_ON_WINDOWS)
    os.WNOHANG = no_hang  # type: ignore[misc] # how multiprocessing looks after its children here
    signal.SIGBREAK = signal.SIGURG  # type: ignore[attr-defined]

    def locking(file: int, mode: int, size: int) -> None:
        assert (mode, size) == (2, 1)
        try:
            flock(file, exclusive)
        except BlockingIOError:
            raise PermissionError(errno.EACCES, "Permission denied") from None

    msvcrt = types.ModuleType("msvcrt")
    msvcrt.locking, msvcrt.LK_NBLCK = locking, 2  # type: ignore[attr-defined]
    sys.modules["msvcrt"] = msvcrt
    plain_select = select.select

    def sockets_only(reading: list, writing: list, *rest: object) -> object:  # type: ignore[type-arg]
        import stat

        for one in (*reading, *writing):
            file = one if isinstance(one, int) else one.fileno()
            if not stat.S_ISSOCK(os.fstat(file).st_mode):
                raise OSError(10038, "an operation was attempted on something that is not a socket")
        return plain_select(reading, writing, *rest)  # type: ignore[arg-type]

    select.select = sockets_only  # type: ignore[assignment]
    refuse_open_files()
    hide_devices()


def hide_devices() -> None:
    """No /dev/fd for `os.path.exists`."""
    there = os.path.exists

    def exists(path: object) -> bool:
        return not str(path).startswith("/dev/fd") and there(path)  # type: ignore[arg-type]

    os.path.exists = exists  # type: ignore[assignment]


def refuse_open_files() -> None:
    """Windows neither removes nor replaces a file that is open."""
    from pathlib import Path

    unlink, replace = os.unlink, os.replace

    def is_open(path: object) -> bool:
        try:
            real = os.path.realpath(path)  # type: ignore[call-overload]
            here = list(Path("/proc/self/fd").iterdir())
        except (OSError, TypeError):
            return False
        return any(os.path.realpath(number) == real for number in here)

    def unlink_closed(path: object, *args: object, **kwargs: object) -> None:
        if is_open(path):
            raise PermissionError(13, "The process cannot access the file because it is being used", path)
        unlink(path, *args, **kwargs)  # type: ignore[arg-type]

    def replace_closed(source: object, target: object, **kwargs: object) -> None:
        if is_open(source) or is_open(target):
            raise PermissionError(13, "The process cannot access the file because it is being used", target)
        replace(source, target, **kwargs)  # type: ignore[arg-type]

    os.unlink = os.remove = unlink_closed  # type: ignore[assignment]
    os.replace = os.rename = replace_closed  # type: ignore[assignment]


if SYSTEM == "windows":
    be_windows()
    sys.platform = "simulated"  # "win32" itself would have the standard library ask for Windows' own modules
    for stream, errors in ((sys.stdout, "strict"), (sys.stderr, "backslashreplace")):
        if stream is not None:
            stream.reconfigure(encoding="cp1252", errors=errors, newline="\r\n")  # type: ignore[union-attr]
elif SYSTEM == "darwin":
    take_away(NOT_ON_DARWIN)
    sys.platform = "darwin"
