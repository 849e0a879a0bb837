#!/usr/bin/env python3
"""Whether a container of ours is well: exit status 0 if so, 1 with the reason if not.

healthy            the database of OPTMERGE_STORAGE_URL answers
healthy STUDY      and has that study
healthy http://... a server answers
"""

import os
import sys
import urllib.request

_PATIENCE = 5  # seconds


def reason_not(what: str | None) -> str | None:
    """Why it is not well, if it is not."""
    if what is not None and what.startswith("http"):
        with urllib.request.urlopen(what, timeout=_PATIENCE):  # anything but a success raises
            return None
    import psycopg

    url = os.environ["OPTMERGE_STORAGE_URL"].replace("postgresql+psycopg:", "postgresql:", 1)
    with psycopg.connect(url, connect_timeout=_PATIENCE) as connection:
        if what is None:
            connection.execute("SELECT 1")
        elif connection.execute("SELECT 1 FROM studies WHERE study_name = %s", [what]).fetchone() is None:
            return f"there is no study {what} yet"
    return None


if __name__ == "__main__":
    try:
        reason = reason_not(sys.argv[1] if len(sys.argv) > 1 else None)
    except Exception as error:  # whatever it is, this is not well; the address, which has a password, is not shown
        reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason given'}"
    if reason is not None:
        print(reason, file=sys.stderr)
        sys.exit(1)
