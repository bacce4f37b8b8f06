"""Faults of a running relay: named points in its code (lib/core/fault.h) that a
test makes fail. Builds with -DPOSTERN_FAULTS=ON have them, others have not.

    faults = Faults(place)
    with Postern(place, environment=faults.environment) as p:
        faults.set("store.rename", KILL)        # the next visit dies there
        faults.set("store.change", errno.ENOSPC, count=1000)
        faults.shift("wall", 86400)             # the clock is a day ahead
        faults.clear()
"""
import errno
import os
import struct

from postern import BIN

KILL = -1
RECORD = "=48siIII"  # struct fault of lib/core/fault.c
RECORDS_MAX = 16
COUNTED_MAX = 2 ** 32 - 1


def available():
    """Whether this build has fault points."""
    with open(os.path.join(BIN, "qmgr"), "rb") as f:
        return b"POSTERN_FAULT_FILE" in f.read()


class Faults:
    def __init__(self, directory):
        self.path = os.path.join(directory, "faults")
        self.used, self.clocks = 0, {}
        with open(self.path, "wb") as f:
            f.write(bytes(RECORDS_MAX * struct.calcsize(RECORD)))
        self.environment = {"POSTERN_FAULT_FILE": self.path}

    def _write(self, at, data):
        with open(self.path, "r+b") as f:
            f.seek(at * struct.calcsize(RECORD))
            f.write(data)

    def set(self, point, action=errno.EIO, skip=0, count=1):
        """After `skip` visits of the point, `count` visits fail with this errno."""
        assert self.used < RECORDS_MAX
        self._write(self.used, struct.pack(RECORD, point.encode(), action, skip, count, 0))
        self.used += 1

    def shift(self, clock, seconds):
        """Sets the clock "wall" or "mono" of all processes off, until clear(); a clock that
        is off already moves on from there."""
        point = "clock." + clock
        if point not in self.clocks:
            self.clocks[point] = self.used
            self.set(point, seconds)
        at = self.clocks[point]
        self._write(at, struct.pack(RECORD, point.encode(), seconds, 0, 1, 0))

    def count(self, point):
        """Counts the visits of the point from now on, until clear(); visits() tells them."""
        self.set(point, 0, skip=COUNTED_MAX)
        return self.used - 1

    def visits(self, index):
        with open(self.path, "rb") as f:
            f.seek(index * struct.calcsize(RECORD))
            return COUNTED_MAX - struct.unpack(RECORD, f.read(struct.calcsize(RECORD)))[2]

    def left(self, index=0):
        """How many visits are still to fail."""
        with open(self.path, "rb") as f:
            f.seek(index * struct.calcsize(RECORD))
            return struct.unpack(RECORD, f.read(struct.calcsize(RECORD)))[3]

    def clear(self):
        self._write(0, bytes(RECORDS_MAX * struct.calcsize(RECORD)))
        self.used, self.clocks = 0, {}
