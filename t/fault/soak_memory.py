"""Memory of the soak's processes over time, and whether it grows.

Each process is sampled from /proc/PID/smaps_rollup while it lives, together with the
backlog. A longer queue takes more memory, and an allocator keeps what a process once had;
neither is a leak. So the slope is that of time alone, at equal backlog: the least squares
fit of memory = a + b * time + c * recipients + d * messages + e * most recipients so far,
through the samples after WARM_SECONDS, which leave it the time to fill its caches;
processes that did not live LONG_SECONDS say nothing, and one that was restarted begins
anew.

The queue manager keeps the backlog, so it is judged by what it has allocated itself
("heap", as it tells in its status), less the bodies that it keeps on purpose, and by the
backlog in recipients: a message may have one or hundreds. What its allocator holds beside
that shows in RSS and PSS, which are reported, too."""
import collections
import dataclasses
import json
import math
import os
import re
import socket
import subprocess
import threading
import time

PERIOD_SECONDS = 2.0
WARM_SECONDS = 120.0
LONG_SECONDS = 240.0
QUEUE = "qmgr"
# of a sample: (time, rss, pss, recipients, heap, messages)
COLUMNS = {"rss": 1, "pss": 2, "heap": 4}
FIELDS = re.compile(r"^(Rss|Pss): +(\d+) kB", re.M)


@dataclasses.dataclass
class Slope:
    """Of one process, in KiB and minutes."""
    service: str
    what: str
    minutes: float
    mean: float
    slope: float
    error: float       # standard error of the slope

    def grows(self, limit):
        """More than the limit, and not by chance."""
        return self.slope - 3 * self.error > limit

    def words(self):
        return (f"{self.what} of {self.service}: {self.mean / 1024:.1f} MiB, {self.slope:+.1f} +- "
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
    rest = [y[i] - sum(w * x[i] for w, x in zip(weights, columns)) for i in range(n)]
    squares = sum(r * r for r in rest)
    error = math.sqrt(squares / (n - len(columns) - 1) * inverted[0][0] / n)
    return weights[0] / spread, error * clustering(rest, squares) / spread, mean


def clustering(rest, squares):
    """By how much the standard error is larger because what the fit leaves over goes up and
    down slowly: neighbours tell the same, so there are fewer samples than it seems."""
    if squares <= 0:
        return 1
    near = sum(a * b for a, b in zip(rest, rest[1:])) / squares
    near = max(0, min(0.95, near))
    return math.sqrt((1 + near) / (1 - near))


class Memory(threading.Thread):
    def __init__(self, pids, backlog, queue=lambda: None):
        """`pids`: a function that tells the service of each process now; `backlog`: one
        that tells how many messages are in the spool; `queue`: one that tells what the
        queue manager says of itself: a Figures, or None if it cannot be asked."""
        super().__init__(daemon=True)
        self.pids, self.backlog, self.queue = pids, backlog, queue
        self.over = threading.Event()
        self.samples = collections.defaultdict(list)   # (pid, service) -> [see COLUMNS]
        self.longest = 0

    def run(self):
        while not self.over.wait(PERIOD_SECONDS):
            count = self.backlog()
            self.longest = max(self.longest, count)
            figures, now = self.queue(), time.monotonic()
            if figures:
                for pid, service in self.pids():
                    self.sample(now, pid, service, figures, count)

    def sample(self, now, pid, service, figures, count):
        try:
            with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as f:
                found = dict(FIELDS.findall(f.read()))
            heap = figures.heap_kib if pid == figures.pid else None
            self.samples[pid, service].append(
                (now, int(found["Rss"]), int(found["Pss"]), figures.recipients, heap, count))
        except (OSError, KeyError):
            pass

    def save(self, path):
        """All samples, for those who want to look: a JSON line for each process."""
        with open(path, "w", encoding="ascii") as f:
            for (pid, service), samples in self.samples.items():
                f.write(json.dumps({"pid": pid, "service": service, "samples": samples}) + "\n")

    def slopes(self, name):
        """Of all processes that lived long enough."""
        out = []
        for (_, service), samples in self.samples.items():
            samples = [s for s in samples if s[COLUMNS[name]] is not None]
            begin, most, late = samples[0][0] if samples else 0, 0, []
            for s in samples:
                most = max(most, s[3])
                if s[0] - begin > WARM_SECONDS:
                    late.append((s[0] / 60, s[3], s[5], most, s[COLUMNS[name]]))
            if len(late) > 10 and samples[-1][0] - begin >= LONG_SECONDS:
                times, *others, values = zip(*late)
                slope, error, mean = fit(times, others, values)
                out.append(Slope(service, name, times[-1] - times[0], mean, slope, error))
        return out

    def report(self, limit):
        """For each service: largest memory, and the mean slope of its long-lived
        processes, each weighted by its time; and what grows beyond the limit."""
        services, growing = {}, []
        for name, column in COLUMNS.items():
            every = self.slopes(name)
            for service in sorted({s for _, s in self.samples}):
                values = [s[column] for (_, of), samples in self.samples.items()
                          if of == service for s in samples if s[column] is not None]
                if not values:
                    continue
                entry = services.setdefault(service, {})
                entry[f"{name}_max_kib"] = max(values)
                slopes = [s for s in every if s.service == service]
                minutes = sum(s.minutes for s in slopes)
                if slopes:
                    entry[f"{name}_slope_kib_per_min"] = round(
                        sum(s.slope * s.minutes for s in slopes) / minutes, 2)
                    entry["processes"], entry["minutes"] = len(slopes), round(minutes, 1)
            growing += [s.words() for s in every
                        if name == ("heap" if s.service == QUEUE else "pss") and s.grows(limit)]
        return services, growing


@dataclasses.dataclass
class Figures:
    """The queue manager of process `pid` at one moment; `heap_kib` without kept bodies."""
    pid: int
    heap_kib: float
    recipients: int


def figures_of(postern):
    """What the queue manager says of itself; None if it does not answer (it may have been
    killed a moment ago)."""
    try:
        lines = [json.loads(l) for l in postern.ctl("status", "--json").splitlines()]
        pid = next(s["pid"] for s in lines[1]["services"] if s["name"] == QUEUE)
        heap = lines[0]["heap_bytes"] - lines[0]["body_bytes"]
        return Figures(pid, heap / 1024, waiting_recipients(postern.path("spool/public/showq")))
    except (AssertionError, OSError, ValueError, LookupError, StopIteration,
            subprocess.TimeoutExpired):
        return None


def waiting_recipients(path):
    """How many the list of the queue has (COMPAT: the showq socket)."""
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(20)
        s.connect(path)
        count, rest = 0, b""
        while piece := s.recv(1 << 20):
            rest += piece
            words = rest.split(b"\0")
            rest = words.pop()
            count += words.count(b"recipient")
    return count


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
