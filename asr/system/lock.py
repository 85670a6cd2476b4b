"""Locks on files, which the system frees when their holder dies."""

from __future__ import annotations

import os
import sys
import time

if sys.platform == "win32":
    import msvcrt

    #: Locks keep others from reading there: a byte that no file has.
    FAR = 1 << 40

    def lock(handle: int, wait: bool = True) -> None:
        """Lock the file open as ``handle`` until that is closed.

        Raises:
            BlockingIOError: another process holds it, and we are not to ``wait``.
        """
        os.lseek(handle, FAR, os.SEEK_SET)
        while True:
            try:
                return msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
            except PermissionError as error:
                if not wait:
                    raise BlockingIOError(*error.args) from error
                time.sleep(0.1)

else:
    import fcntl

    def lock(handle: int, wait: bool = True) -> None:
        """Lock the file open as ``handle`` until that is closed.

        Raises:
            BlockingIOError: another process holds it, and we are not to ``wait``.
        """
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
