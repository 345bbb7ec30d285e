"""What a process is told before it trains."""

import os
import signal
import sys
import threading
import time
import warnings
from io import TextIOWrapper

QUIET = (  # warnings that are of no use here
    ".*does not have many workers.*",
    ".*treespec, LeafSpec.*",
    ".*dirpath has changed.*",
    "You.re resuming from a checkpoint that ended before.*",  # ours goes on exactly
    "Checkpoint directory .* exists and is not empty.*",
    ".*not supported by the model summary.*",
)


def set_up() -> None:
    """Exit on signals, end with the process that started this one, print what can be printed."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    for stream in (sys.stdout, sys.stderr):  # a console may lack a letter of a folder's name
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if int(os.environ.get("LOCAL_RANK", 0)) > 0:
        die_with_parent()
    for message in QUIET:
        warnings.filterwarnings("ignore", message)


def die_with_parent() -> None:
    """Do not outlive the process that started this one, waiting for its messages."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
