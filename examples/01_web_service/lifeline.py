"""A process that ends when its parent is gone, even when the parent was killed without a chance to clean up.

The parent keeps the writing end of a pipe and gives the reading end to the child. The kernel closes the writing end
with the parent, whatever ended it, and the child reads the end of the file.
"""

from __future__ import annotations

import os
import signal
import threading
import time

LIFELINE = "LIFELINE_FD"


def end_with_parent(*, grace_s: float) -> None:
    """Watch the pipe named by the environment: at its end SIGTERM for this process, and SIGKILL after `grace_s`."""
    descriptor = os.environ.get(LIFELINE)
    if descriptor is None:
        return

    def watch(pipe: int) -> None:
        while os.read(pipe, 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(grace_s)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, args=(int(descriptor),), name="lifeline", daemon=True).start()
