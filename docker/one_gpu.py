#!/usr/bin/env python3
"""Run a command on one GPU, another one for each container: `one-gpu COMMAND ...`.

The replicas of a service all get the same GPUs, and nothing tells them apart. So each takes a seat: the first file of
the folder SEATS that no other has locked. Seats go round the GPUs, and a seat is free again when its holder ends,
however it does. The folder must be one that all containers of the machine share, and no other machine.
"""

import fcntl
import itertools
import os
import subprocess
import sys
from pathlib import Path

SEATS = Path(os.environ.get("SEATS", "/seats"))


def gpus() -> list[str]:
    """The GPUs that this container sees, by their unique names."""
    command = ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError) as error:
        sys.exit(f"one-gpu: no GPU is to be seen from here: {error}")
    found = [line.strip() for line in listed.splitlines() if line.strip()]
    return found or sys.exit("one-gpu: nvidia-smi lists no GPU")


def take_seat() -> int:
    """Lock the first free seat until this process, and what it becomes, ends; gives its number."""
    for seat in itertools.count():
        descriptor = os.open(SEATS / str(seat), os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            continue
        os.set_inheritable(descriptor, True)
        return seat
    raise AssertionError


if __name__ == "__main__":
    known = gpus()
    seat = take_seat()
    os.environ["CUDA_VISIBLE_DEVICES"] = known[seat % len(known)]
    print(f"one-gpu: seat {seat}, GPU {seat % len(known)} of {len(known)}", file=sys.stderr, flush=True)
    os.execvp(sys.argv[1], sys.argv[1:])
