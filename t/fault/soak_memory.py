"""Memory of the soak's processes over time, and whether it grows.

Each process is sampled from /proc/PID/smaps_rollup while it lives. Its slope is the
least squares line through the samples after WARM_SECONDS, which leave it the time to
fill its caches; processes that did not live LONG_SECONDS say nothing."""
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


def fit(samples):
    """(slope, its standard error, mean) of (x, y) by least squares."""
    n = len(samples)
    mx, my = sum(x for x, _ in samples) / n, sum(y for _, y in samples) / n
    sxx = sum((x - mx) ** 2 for x, _ in samples)
    slope = sum((x - mx) * (y - my) for x, y in samples) / sxx
    rest = sum((y - my - slope * (x - mx)) ** 2 for x, y in samples)
    return slope, math.sqrt(rest / (n - 2) / sxx), my


class Memory(threading.Thread):
    def __init__(self, pids):
        """`pids`: a function that tells the service of each process now."""
        super().__init__(daemon=True)
        self.pids, self.over = pids, threading.Event()
        self.samples = collections.defaultdict(list)   # (pid, service) -> (time, rss, pss)

    def run(self):
        while not self.over.wait(PERIOD_SECONDS):
            now = time.monotonic()
            for pid, service in self.pids():
                try:
                    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as f:
                        found = dict(FIELDS.findall(f.read()))
                    self.samples[pid, service].append((now, int(found["Rss"]), int(found["Pss"])))
                except (OSError, KeyError):
                    pass

    def slopes(self, column=2):
        """Of all processes that lived long enough. Column 1: RSS, 2: PSS."""
        out = []
        for (_, service), samples in self.samples.items():
            begin = samples[0][0]
            late = [(s[0] / 60, s[column]) for s in samples if s[0] - begin > WARM_SECONDS]
            if len(late) > 10 and samples[-1][0] - begin >= LONG_SECONDS:
                slope, error, mean = fit(late)
                out.append(Slope(service, late[-1][0] - late[0][0], mean, slope, error))
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
