"""What the soak does to a running relay, at random."""
import collections
import os
import random
import shutil
import signal
import time

import faults
import soak_check
from patience import stretched

SERVICES = ("smtpd", "qmgr", "relay", "resolve", "bounce")
# how often, compared with each other
ACTIONS = {"smtpd": 4, "qmgr": 4, "relay": 4, "resolve": 2, "bounce": 2, "two": 2,
           "services": 2, "everything": 2, "master": 2, "pause": 4, "freeze": 1, "reload": 3,
           "stop": 1, "full": 2, "inodes": 1, "dns_loss": 2, "point": 12}
# What no process dies of.
GENTLE = {"pause": 4, "full": 3, "inodes": 2, "dns_loss": 3}
# Where a process dies between two steps that matter, in builds with fault points.
POINTS = ("smtpd.commit", "smtpd.committed", "store.create", "store.write", "store.rename",
          "store.renamed", "store.syncfs", "store.dirs_synced", "store.large_fsync",
          "store.change", "journal.write", "journal.written",
          "journal.sync", "qmgr.committed", "qmgr.result", "qmgr.notice", "qmgr.noticed",
          "relay.dot_told", "relay.dot_sent", "relay.result", "bounce.notice")
POINT_SECONDS = 1.0
# Services finish within service_stop_time (10 s) after their master was killed.
START_SECONDS = 40
WATCHDOG_SECONDS = 10
FREEZE_SECONDS = 40
FULL_SECONDS = (0.5, 4.0)
DNS_SECONDS = (0.5, 8.0)


def service_of(point):
    service = point.split(".")[0]
    return {"store": "qmgr", "journal": "qmgr", "kv": "quota"}.get(service, service)


class Trouble:
    """What is done to Postern, at random, and when."""

    def __init__(self, postern, seed, points, dns, mount, more=()):
        """`mount`: a small file system that the spool is on, or None. `more`: a service, how
        often it is killed, and its points, each in a list of its own."""
        self.p, self.points, self.dns, self.mount = postern, points, dns, mount
        self.random = random.Random(seed)
        self.services, self.actions, self.points_named = SERVICES, ACTIONS, POINTS
        for service, often, names in more:
            self.services, self.actions = (*self.services, service), {**self.actions, service: often}
            self.points_named = (*self.points_named, *names)
        self.kills, self.stops = [], []
        self.counts = collections.Counter()

    def act(self, gentle=False):
        """Does something; its name. Gentle: nothing dies of it."""
        actions = GENTLE if gentle else self.actions
        name = self.random.choices(list(actions), list(actions.values()))[0]
        if name == "point":
            name = self.random.choice(self.points_named)
            if not self.points:
                name = service_of(name)
        self.counts[name] += 1
        if name in self.services:
            self.kill(name)
            if self.random.random() < 0.2:  # and its successor too, while it starts
                time.sleep(self.random.random() * 0.2)
                self.kill(name)
        elif name == "two":
            self.kill(*self.random.sample(self.services, 2))
        elif name == "services":
            self.kill(*self.services)
        elif name in self.points_named:
            self.point(name)
        else:
            getattr(self, name)(*([gentle] if name == "pause" else []))
        return name

    def signal(self, services, number):
        pids = [pid for s in services for pid in self.p.pids(s)]
        for pid in pids:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass
        return pids

    def kill(self, *services):
        begun = time.time()
        self.signal(services, signal.SIGKILL)
        self.kills.append(soak_check.Kill(begun, time.time(), services))

    def point(self, name):
        """The service dies at one of its next visits of this point, if it comes there."""
        service = service_of(name)
        self.points.set(name, faults.KILL, skip=self.random.choice((0, 0, 1, 5, 20)))
        begun, end = time.time(), time.monotonic() + POINT_SECONDS
        while time.monotonic() < end and self.points.left():
            begun = time.time()
            time.sleep(0.005)
        if not self.points.left():
            self.kills.append(soak_check.Kill(begun, time.time(), (service,)))
        self.points.clear()

    def everything(self):
        begun = time.time()
        self.p.kill()
        self.kills.append(soak_check.Kill(begun, time.time(), ("master", *self.services)))
        self.start()

    def master(self):
        begun = time.time()
        self.p.process.kill()
        self.p.process.wait()
        self.p.process = None
        self.kills.append(soak_check.Kill(begun, time.time(), ("master",)))
        self.start()

    def start(self):
        """Again and again, as systemd does, while its predecessors finish."""
        begun = time.monotonic()
        while True:
            try:
                self.p.start()
                return
            except AssertionError:
                if time.monotonic() - begun > stretched(START_SECONDS):
                    raise
                time.sleep(0.2)

    def pause(self, gentle):
        """SIGSTOP for a while; now and then another one dies meanwhile."""
        service = self.random.choice(self.services)
        begun = time.time()
        pids = self.signal((service,), signal.SIGSTOP)
        time.sleep(self.random.uniform(0.2, 1.2))
        if not gentle and self.random.random() < 0.3:
            self.kill(self.random.choice([s for s in self.services if s != service]))
            time.sleep(0.1)
        for pid in pids:
            try:
                os.kill(pid, signal.SIGCONT)
            except ProcessLookupError:
                pass
        self.stops.append((begun, time.time()))

    def freeze(self):
        """SIGSTOP until the watchdog ends it (F18)."""
        service = self.random.choice(self.services)
        begun = time.time()
        pids = self.signal((service,), signal.SIGSTOP)
        since = time.monotonic()
        while any(os.path.exists(f"/proc/{pid}") for pid in pids):
            if time.monotonic() - since > stretched(FREEZE_SECONDS):
                raise AssertionError(f"{service} stood still for {FREEZE_SECONDS} s and lives")
            time.sleep(0.1)
        self.kills.append(soak_check.Kill(begun, time.time(), (service,)))
        self.stops.append((begun, time.time()))

    def full(self):
        """The disk has next to no room for a while (F21, F22)."""
        if not self.mount:
            return
        room = os.statvfs(self.mount)
        left = self.random.choice((0, 0, 4096, 100_000, 2_000_000))
        path = os.path.join(self.mount, "filler")
        with open(path, "wb") as f:
            try:
                os.posix_fallocate(f.fileno(), 0, max(1, room.f_bfree * room.f_frsize - left))
            except OSError:
                pass   # others were faster; what it got stays
        time.sleep(self.random.uniform(*FULL_SECONDS))
        os.unlink(path)

    def inodes(self):
        """No inodes are left for a while (F23)."""
        if not self.mount:
            return
        place = os.path.join(self.mount, "fillers")
        os.mkdir(place)
        left = self.random.choice((0, 1, 20))
        try:
            for i in range(max(0, os.statvfs(self.mount).f_ffree - left)):
                os.close(os.open(f"{place}/{i}", os.O_CREAT | os.O_WRONLY))
        except OSError:
            pass
        time.sleep(self.random.uniform(*FULL_SECONDS))
        shutil.rmtree(place)

    def dns_loss(self):
        """Name servers are silent or fail (F32)."""
        lose = self.random.choice((self.dns.silent, self.dns.servfail))
        for name in self.dns.names:
            lose(name)
        time.sleep(self.random.uniform(*DNS_SECONDS))
        for name in self.dns.names:
            self.dns.heal(name)

    def reload(self):
        os.kill(self.p.process.pid, signal.SIGHUP)

    def stop(self):
        self.p.stop()
        self.start()
