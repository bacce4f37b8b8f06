"""How long a test waits before it gives up. A limit only ends what would hang, so a machine
that has more to do than it has processors for gets more time."""
import os

MOST = 6.0  # times


def stretched(seconds):
    """A limit of so many seconds, as long as this machine needs for them now."""
    with open("/proc/loadavg", encoding="ascii") as f:
        fields = f.read().split()
    ready = max(float(fields[0]), int(fields[3].split("/")[0]))  # of the last minute; just now
    return seconds * min(MOST, max(1.0, ready / os.cpu_count()))
