"""What the power is cut in: a relay that takes, delivers, defers, bounces, holds and
deletes mail for some seconds, with every call on its spool written down, and what
the outside knows of it."""
import bisect
import collections
import ctypes
import dataclasses
import errno
import itertools
import json
import os
import random
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(os.path.dirname(HERE), "e2e")]

from patience import stretched  # noqa: E402
from postern import BUILD, Postern, pause  # noqa: E402
import shim  # noqa: E402
import soak_accounts  # noqa: E402
import soak_check  # noqa: E402
from soak_clients import ACKED, Client, Numbers, Text  # noqa: E402
from soak_server import Sink  # noqa: E402

FOLDERS = ("new", "free", "tmp", "corrupt", "journal")
LOAD_SECONDS = 90      # at most, for all messages to be submitted
DRAIN_SECONDS = 4      # at most, for some of the rest to be delivered
SYNC_US, SLOW_SYNCFS_US = 1500, 60_000


def checksum(content):
    lib = ctypes.CDLL("libxxhash.so.0")
    lib.XXH3_64bits.restype = ctypes.c_uint64
    return f"{lib.XXH3_64bits(ctypes.c_char_p(content), ctypes.c_size_t(len(content))):016x}"


class FewNumbers(Numbers):
    """A given count of messages, of kinds that matter here; then the end."""

    def __init__(self, count, done):
        super().__init__()
        self.wanted, self.done = count, done

    def next(self, rng):
        m = super().next(rng)
        dice = rng.random()
        m.size = rng.choice((10, 700, 4000, 9000)) if dice < 0.9 else \
            rng.randrange(70_000, 120_000)
        del m.recipients[6:]
        if m.number >= self.wanted:
            self.done.set()
        return m


class SummingClient(Client):
    def compose(self, m):
        head, body = super().compose(m)
        m.sum = checksum(head + body)
        return head, body


class PayingClient(soak_accounts.AccountClient, SummingClient):
    """The same, as a user of an account."""


@dataclasses.dataclass
class Order:
    """What an operator did to a message; by then it was done."""
    verb: str
    id: str
    begun: float
    done: float


@dataclasses.dataclass
class Recording:
    """A scenario that is over."""
    tree: dict              # path -> (inode, content) when it began
    root: int               # the spool's inode
    records: list           # shim.Record
    end: dict               # path -> content when it was over
    messages: dict          # number -> soak_clients.Message
    deliveries: list        # soak_check.Copy
    notices: list
    events: dict            # (id, recipient) -> times at which qmgr logged the delivery
    orders: list            # Order
    database: tuple = ()    # with accounts: tree, inode and end of their directory, as above
    accounts: dict = dataclasses.field(default_factory=dict)   # message's number -> account

    def __post_init__(self):
        self.sends = [(r.begin_ns, r.begin) for r in self.records if r.call == shim.SEND]
        self.times = sorted([(r.begin_ns, r.begin) for r in self.records] +
                            [(r.end_ns, r.end) for r in self.records if r.end])
        # for each of them the earliest position from this time on: a thread that lost the
        # CPU between its look at the clock and its number has an early time and a late number
        self.earliest = list(itertools.accumulate((p for _, p in reversed(self.times)), min))[::-1]

    def told_by(self, seconds):
        """Position of the last thing that qmgr sent before this time: what somebody
        outside knew then was no secret after it."""
        i = bisect.bisect_left(self.sends, (int(seconds * 1e9), 0))
        return self.sends[i - 1][1] if i else 0

    def position(self, seconds):
        """Position of the first step that may have come after this time; what was known
        outside by then was known to those who made this step."""
        i = bisect.bisect_left(self.times, (int(seconds * 1e9), 0))
        return self.earliest[i] if i < len(self.times) else max(p for _, p in self.times) + 1

    def time(self, position):
        """When this step was, in seconds."""
        if not hasattr(self, "by_position"):
            self.by_position = sorted((p, t) for t, p in self.times)
        i = bisect.bisect_left(self.by_position, (position, 0))
        return self.by_position[min(i, len(self.by_position) - 1)][1] / 1e9


def read_tree(spool, folders=FOLDERS):
    """path -> (inode, content; None for directories) of the mail in a spool."""
    tree = {}
    for folder in folders:
        for base, _, files in os.walk(os.path.join(spool, folder)):
            tree[os.path.relpath(base, spool)] = (os.stat(base).st_ino, None)
            for name in files:
                path = os.path.join(base, name)
                with open(path, "rb") as f:
                    tree[os.path.relpath(path, spool)] = (os.stat(path).st_ino, f.read())
    return tree


def read_database(directory):
    """The same of the accounts' database."""
    return read_tree(directory, os.listdir(directory))


class Mail:
    """The shim, with rules for the programs of mail alone."""

    def __init__(self, s):
        self.set = s.set
        self.rule = lambda *a, **k: s.rule(*a, **k, programs=["qmgr", "smtpd"])


class Scenario:
    """Runs it; `recording` at the end."""

    def __init__(self, directory, seed, messages=160, clients=4, lie=None, journal="1m",
                 accounts=False):
        self.seed, self.random = seed, random.Random(seed)
        self.has_accounts = accounts
        self.sink = Sink(directory, seed)
        self.shim = shim.Shim(directory, BUILD)
        table = os.path.join(directory, "transport")
        with open(table, "w", encoding="ascii") as f:
            f.write(f"down.test smtp:[127.0.0.1]:{self.sink.second}\n")
        self.lie = lie         # calls that succeed and do nothing
        self.p = Postern(
            directory, start=False, relayhost=f"[127.0.0.1]:{self.sink.port}",
            program_directory=self.shim.programs, transport_maps=f"texthash:{table}",
            minimal_backoff_time="1s", maximal_backoff_time="2s", destination_suspend_time="1s",
            qmgr_free_files_limit=24, queue_journal_size=journal,
            **(soak_accounts.config(directory) if accounts else {}))
        self.done = threading.Event()
        self.numbers = FewNumbers(messages, self.done)
        text = Text(300_000)
        rest = [(self.numbers, text, self.p.port, seed * 100 + k, 60, self.done)
                for k in range(clients)]
        self.clients = [PayingClient(k, *r) if accounts else SummingClient(*r)
                        for k, r in enumerate(rest)]
        self.orders = []

    # ---- what happens meanwhile

    def order(self, verb, id):
        begun = time.time()
        done = self.p.ctl("queue", verb, id, check=False)
        if done.returncode == 0:
            self.orders.append(Order(verb, id, begun, time.time()))

    def give_orders(self):
        """Holds, releases and deletes some of what waits."""
        waiting = [m for m in list(self.numbers.messages.values())
                   if m.state == ACKED and any("down.test" in r for r in m.recipients)]
        for m in self.random.sample(waiting, min(2, len(waiting))):
            last = [o.verb for o in self.orders if o.id == m.id]
            verbs = ("undelete",) if last and last[-1] == "delete" else \
                ("hold", "hold", "release", "delete")
            self.order(self.random.choice(verbs), m.id)

    def phases(self):
        """What changes as the load goes on: by the share of messages submitted."""
        yield from sorted([*self.mail_phases(), *(self.account_phases() if self.has_accounts
                                                  else ())], key=lambda phase: phase[0])

    def account_phases(self):
        """quota dies three times, at a write, at a sync and with all that follows from it, and
        a snapshot is made."""
        s = self.shim
        yield 0.1, lambda: s.rule([shim.WRITE], shim.KILL, first=4, index=2, programs=["quota"])
        yield 0.35, lambda: self.p.ctl("account", "snapshot", check=False)
        yield 0.45, lambda: s.rule([shim.FSYNC], shim.KILL_BEFORE, first=3, index=2,
                                   programs=["quota"])
        yield 0.75, lambda: s.rule([shim.FSYNC], shim.KILL, first=6, index=2, programs=["quota"])

    def mail_phases(self):
        s = Mail(self.shim)
        yield 0.15, lambda: self.sink.tell("down")
        yield 0.3, lambda: s.set("syncfs_us", SLOW_SYNCFS_US)   # then each file by itself
        yield 0.4, lambda: s.rule([shim.RENAME], shim.KILL, first=5)
        yield 0.5, lambda: self.sink.tell("up")
        yield 0.6, lambda: s.set("syncfs_us", SYNC_US)
        yield 0.65, lambda: s.rule([shim.FSYNC, shim.SYNCFS], shim.KILL, first=3)
        yield 0.7, lambda: self.sink.tell("down")
        yield 0.8, lambda: s.rule([shim.SYNCFS], errno.EIO, first=2, count=10**6)
        yield 0.9, lambda: self.sink.tell("up")

    def load(self):
        for c in self.clients:
            c.start()
        phases = collections.deque(self.phases())
        begun, ordered = time.monotonic(), 0
        while any(c.is_alive() for c in self.clients):
            share = self.numbers.count() / self.numbers.wanted
            while phases and share >= phases[0][0]:
                phases.popleft()[1]()
            if share > ordered + 0.05:
                ordered = share
                self.give_orders()
            assert time.monotonic() - begun < stretched(LOAD_SECONDS), \
                "the load does not come to its end"
            self.done.wait(0.01)
        self.shim.rule([], 0)

    def run(self):
        p = self.p
        p.start()            # makes the spool
        if self.has_accounts:
            soak_accounts.fill(p, len(self.clients), "")
        p.stop()
        spool, database = p.path("spool"), p.path("data", "accounts")
        tree = read_tree(spool)
        before = read_database(database) if self.has_accounts else None
        self.shim.watch(spool)
        self.shim.set("fsync_us", SYNC_US)
        self.shim.set("syncfs_us", SYNC_US)
        p.start()
        if self.lie:
            self.shim.rule(**self.lie, count=1 << 60, index=1)
        self.load()
        self.sink.tell("calm")
        begun = time.monotonic()
        while len(p.spool_files()) > 10 and time.monotonic() - begun < stretched(DRAIN_SECONDS):
            pause()
        p.stop()
        self.shim.set("device", 0)
        self.sink.stop()
        rec = self.recording(tree, spool)
        if self.has_accounts:
            end = {path: content for path, (_, content) in read_database(database).items()}
            rec.database = (before, os.stat(database).st_ino, end)
            rec.accounts = {n: soak_accounts.account_of(k) for k, c in enumerate(self.clients)
                            for n in c.mine}
        return rec

    def recording(self, tree, spool):
        deliveries, notices, damaged = soak_check.read_records(self.sink.records)
        assert not damaged, damaged
        events = collections.defaultdict(list)
        for e in p_events(self.p):
            if e["event"] == "delivered":
                events[e["id"], e["to"]].append(e["time"])
        end = {path: content for path, (_, content) in read_tree(spool).items()}
        return Recording(tree, os.stat(spool).st_ino, self.shim.records(), end,
                         self.numbers.messages, deliveries, notices, events, self.orders)

    def clean_up(self):
        self.done.set()
        if self.p.process:
            self.p.kill()
        self.sink.process.kill()
        self.sink.process.wait()


def p_events(p):
    """Of a line that a kill cut in two neither half counts."""
    for line in p._read("events.json").splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            pass


def record(directory, seed, **options):
    s = Scenario(directory, seed, **options)
    try:
        return s.run()
    finally:
        s.clean_up()
