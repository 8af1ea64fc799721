"""One start at a time in a work directory."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from train.errors import CannotWriteError, UserError
from train.run import layout

# File systems that have no locks: then two starts are the user's to keep apart.
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)


@contextlib.contextmanager
def in_use(workdir: Path) -> Iterator[None]:
    """Makes the work directory and keeps other starts out of it while the context runs.

    The lock is the kernel's (POSIX, which worker processes do not inherit): it ends
    with this process, however that ends. A file left behind locks nobody out.

    Raises:
      UserError: names the process that uses the directory.
      CannotWriteError: if the directory cannot be made or written.
    """
    path = workdir / layout.LOCK
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        file = _take(path)
    except OSError as error:
        raise CannotWriteError(
            f"The work directory {workdir} cannot be written: {_reason(error)}."
        ) from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            # Before the lock goes, or it would be another start's file.
            path.unlink()
        os.close(file)


def _reason(error: OSError) -> str:
    if isinstance(error, FileExistsError):
        return "it is a file, or a link to nothing"
    return error.strerror or str(error)


def _take(path: Path) -> int:
    """Locks the file; its descriptor."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            _lock(file, path)
            if _is_still(file, path):
                _sign(file)
                return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)  # The one who held it has ended in between, and removed it.


def _lock(file: int, path: Path) -> None:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            raise UserError(
                f"{path.parent} is in use by {_holder(file)}. Wait for it to end, stop"
                " it, or choose another --workdir."
            ) from error
        if error.errno not in _NO_LOCKS:
            raise


def _is_still(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except FileNotFoundError:
        return False


def _sign(file: int) -> None:
    started = time.strftime("%Y-%m-%d %H:%M:%S %z")
    about = {"process": os.getpid(), "host": socket.gethostname(), "started": started}
    os.ftruncate(file, 0)
    os.pwrite(file, (json.dumps(about) + "\n").encode(), 0)


def _holder(file: int) -> str:
    # The holder may not have signed yet.
    for _ in range(20):
        try:
            about = json.loads(os.pread(file, 4096, 0))
            return (
                f"process {about['process']} on host {about['host']}, started"
                f" {about['started']}"
            )
        except (ValueError, KeyError, TypeError):
            time.sleep(0.05)
    return "another process"
