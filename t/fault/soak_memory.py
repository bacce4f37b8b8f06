"""Memory of the soak's processes over time, and whether it grows.

Each process is sampled from /proc/PID/smaps_rollup while it lives, together with the
number of messages in the spool. A longer queue takes more memory, and an allocator keeps
what a process once had; neither is a leak. So the slope is that of time alone: the least
squares fit of memory = a + b * time + c * backlog + d * longest backlog so far, through
the samples after WARM_SECONDS, which leave it the time to fill its caches; processes that
did not live LONG_SECONDS say nothing."""
import collections
import dataclasses
import math
import os
import re
import threading
import time

PERIOD_SECONDS = 2.0
WARM_SECONDS = 60.0
LONG_SECONDS = 150.0
FIELDS = re.compile(r"^(Rss|Pss): +(\d+) kB", re.M)


@dataclasses.dataclass
class Slope:
    """Of one process, in KiB and minutes."""
    service: str
    minutes: float
    mean: float
    slope: float
    error: float       # standard error of the slope

    def grows(self, limit):
        """More than the limit, and not by chance."""
        return self.slope - 3 * self.error > limit

    def words(self):
        return (f"{self.service}: {self.mean / 1024:.1f} MiB, {self.slope:+.1f} +- "
                f"{self.error:.1f} KiB/min in {self.minutes:.1f} min")


def inverse(matrix):
    """Of a small positive definite matrix, or None if it is singular."""
    n = len(matrix)
    rows = [list(row) + [float(i == k) for k in range(n)] for i, row in enumerate(matrix)]
    for i in range(n):
        if rows[i][i] < 1e-9:
            return None
        rows[i] = [x / rows[i][i] for x in rows[i]]
        for k in range(n):
            if k != i:
                rows[k] = [x - rows[k][i] * y for x, y in zip(rows[k], rows[i])]
    return [row[n:] for row in rows]


def centred(column):
    """Minus its mean; over its spread, so that all columns weigh the same. And the spread."""
    mean = sum(column) / len(column)
    spread = math.sqrt(sum((x - mean) ** 2 for x in column) / len(column))
    return [(x - mean) / (spread or 1) for x in column], spread


def fit(times, others, values):
    """(slope over time, its standard error, mean of the values) by least squares, with
    the other columns taken out. A column that never changes, or follows from the ones
    before it, is left out."""
    n, mean = len(values), sum(values) / len(values)
    y = [v - mean for v in values]
    columns, spread = [], 0.0
    for at, column in enumerate([times, *others]):
        x, width = centred(column)
        trial = [*columns, x]
        solved = inverse([[sum(p * q for p, q in zip(a, b)) / n for b in trial] for a in trial])
        if width > 0 and solved:
            columns, inverted = trial, solved
        if at == 0:
            spread = width
    xy = [sum(p * q for p, q in zip(x, y)) / n for x in columns]
    weights = [sum(p * q for p, q in zip(row, xy)) for row in inverted]
    rest = sum((y[i] - sum(w * x[i] for w, x in zip(weights, columns))) ** 2 for i in range(n))
    error = math.sqrt(rest / (n - len(columns) - 1) * inverted[0][0] / n)
    return weights[0] / spread, error / spread, mean


class Memory(threading.Thread):
    def __init__(self, pids, backlog):
        """`pids`: a function that tells the service of each process now; `backlog`: one
        that tells how many messages are in the spool."""
        super().__init__(daemon=True)
        self.pids, self.backlog, self.over = pids, backlog, threading.Event()
        self.samples = collections.defaultdict(list)   # (pid, service) -> (time, rss, pss, n)
        self.longest = 0

    def run(self):
        while not self.over.wait(PERIOD_SECONDS):
            now, count = time.monotonic(), self.backlog()
            self.longest = max(self.longest, count)
            for pid, service in self.pids():
                try:
                    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as f:
                        found = dict(FIELDS.findall(f.read()))
                    self.samples[pid, service].append(
                        (now, int(found["Rss"]), int(found["Pss"]), count))
                except (OSError, KeyError):
                    pass

    def slopes(self, column=2):
        """Of all processes that lived long enough. Column 1: RSS, 2: PSS."""
        out = []
        for (_, service), samples in self.samples.items():
            begin, most, late = samples[0][0], 0, []
            for s in samples:
                most = max(most, s[3])
                if s[0] - begin > WARM_SECONDS:
                    late.append((s[0] / 60, s[3], most, s[column]))
            if len(late) > 10 and samples[-1][0] - begin >= LONG_SECONDS:
                times, backlog, longest, values = zip(*late)
                slope, error, mean = fit(times, (backlog, longest), values)
                out.append(Slope(service, times[-1] - times[0], mean, slope, error))
        return out

    def report(self, limit):
        """For each service: largest memory, and the mean slope of its long-lived
        processes, each weighted by its time; and what grows beyond the limit."""
        services, growing = {}, []
        for column, name in ((1, "rss"), (2, "pss")):
            for service in sorted({s for _, s in self.samples}):
                entry = services.setdefault(service, {})
                entry[f"{name}_max_kib"] = max(s[column] for (_, of), samples in
                                               self.samples.items() if of == service
                                               for s in samples)
                slopes = [s for s in self.slopes(column) if s.service == service]
                minutes = sum(s.minutes for s in slopes)
                if slopes:
                    entry[f"{name}_slope_kib_per_min"] = round(
                        sum(s.slope * s.minutes for s in slopes) / minutes, 2)
                    entry["processes"], entry["minutes"] = len(slopes), round(minutes, 1)
                growing += [s.words() for s in slopes if column == 2 and s.grows(limit)]
        return services, growing


def services_of(master):
    """(pid, service) of master and its children."""
    out = []
    if master is None:
        return out
    try:
        with open(f"/proc/{master}/task/{master}/children", encoding="ascii") as f:
            pids = [master] + [int(x) for x in f.read().split()]
    except OSError:
        return out
    for pid in pids:
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                out.append((pid, os.path.basename(f.read().split(b"\0")[0].decode())))
        except OSError:
            pass
    return out
