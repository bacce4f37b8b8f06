"""Gives what a power cut left to a whole relay, which has to deliver all that is
owed, and nothing twice but what P4 allows."""
import collections
import json
import os
import shutil
import sys

from postern import Postern, wait_until, write_accounts
import powercut_accounts
import powercut_check
from powercut_check import DELETED_FLAG, NEVER
import powercut_scenario
import soak_accounts
import soak_check
from soak_check import is_refused
from soak_clients import ACKED, MAYBE
from soak_server import Sink

DRAIN_SECONDS = 60


def owner_of(directory, service="queue"):
    """Numbers of a service's user and group in the relay's own accounts."""
    write_accounts(directory)
    with open(os.path.join(directory, "passwd"), encoding="utf-8") as f:
        fields = next(l.split(":") for l in f if l.startswith(f"_postern-{service}:"))
    return int(fields[2]), int(fields[3])


class Restart:
    """One relay and one receiving server, for one state after the other."""

    def __init__(self, directory, rec, judge, seed):
        self.rec, self.judge, self.directory = rec, judge, directory
        self.held = set()      # and deleted: what stays
        os.makedirs(directory)
        self.sink = Sink(directory, seed)
        self.sink.tell("calm")
        table = os.path.join(directory, "transport")
        with open(table, "w", encoding="ascii") as f:
            f.write(f"down.test smtp:[127.0.0.1]:{self.sink.second}\n")
        self.p = Postern(
            directory, start=False, relayhost=f"[127.0.0.1]:{self.sink.port}",
            transport_maps=f"texthash:{table}", minimal_backoff_time="1s",
            maximal_backoff_time="2s", destination_suspend_time="1s", qmgr_free_files_limit=24,
            **(soak_accounts.config(directory) if rec.database else {}))
        self.p.start()
        self.p.stop()

    def fill(self, tree):
        spool = self.p.path("spool")
        powercut_check.build_tree(self.p.path("state"), tree)
        for folder in powercut_scenario.FOLDERS:
            shutil.rmtree(os.path.join(spool, folder))
            os.rename(self.p.path("state", folder), os.path.join(spool, folder))
        if os.getuid() == 0:
            owner = owner_of(self.directory)
            for folder in powercut_scenario.FOLDERS:
                for base, _, files in os.walk(os.path.join(spool, folder)):
                    for path in [base] + [os.path.join(base, f) for f in files]:
                        os.chown(path, *owner)

    def listed(self, *options):
        listed = self.p.ctl("queue", "list", "--json", *options, check=False).stdout
        return [json.loads(line) for line in listed.splitlines()]

    def waiting(self):
        """Files of messages that are to be delivered."""
        self.held = {m["id"] for m in self.listed() if m.get("status") == "hold"}
        self.held |= {m["id"] for m in self.listed("--deleted")}
        return {os.path.basename(f) for f in self.p.spool_files()} - self.held

    def copies(self, before):
        """Deliveries, notices and damages since the sink's records were so long."""
        after = os.path.join(self.directory, "after")
        with open(self.sink.records, "rb") as f, open(after, "wb") as out:
            f.seek(before)
            out.write(f.read())
        return soak_check.read_records(after)

    def expected(self, position, before):
        return powercut_accounts.Expectation(self.rec, self.judge, position,
                                             self.copies(before)[:2], self.held)

    def run(self, position, tree, accounts=None):
        """What is wrong, as a list of sentences."""
        before = os.path.getsize(self.sink.records)
        self.fill(tree)
        if accounts is not None:
            powercut_accounts.place_database(
                self.p, accounts, owner_of(self.directory, "quota") if os.getuid() == 0 else None)
        self.p.start()
        self.p.wait_log("spool read: ")
        stuck = ""
        try:
            wait_until(lambda: not self.waiting(), DRAIN_SECONDS, "an empty queue")
        except AssertionError as e:
            stuck = f"{e}: {sorted(self.waiting())}"
        if accounts is not None:
            powercut_accounts.wait_settled(self.p, self.expected(position, before))
        self.p.stop()
        os.truncate(self.p.path("log"), 0)
        wrong = ([stuck] if stuck else []) + self.judge_all(position, self.copies(before))
        if accounts is not None:
            wrong += powercut_accounts.judge_end(self.p, self.expected(position, before))
        return wrong

    # ---- the verdict

    def judge_all(self, position, copies):
        deliveries, notices, damaged = copies
        wrong = [f"message {number}: {what}" for number, what in damaged]
        came = collections.Counter(r for c in deliveries for r in c.recipients)
        told = collections.Counter(r for c in notices for r in c.reported)
        for m in self.rec.messages.values():
            wrong += self.judge_message(position, m, came, told)
        return wrong

    def judge_message(self, position, m, came, told):
        owed = m.state == ACKED and self.judge.acked[m.number] < position
        deleted = self.judge.standing(self.rec.time(position), m.id, DELETED_FLAG)
        whole = [a for a in m.recipients if came[a] or told[a]]
        wrong = []
        if whole and m.state not in (ACKED, MAYBE):
            wrong.append(f"{m.number} was {m.state} and came")
        for a in m.recipients:
            before = (self.judge.noticed if is_refused(a) else self.judge.delivered).get(a, NEVER)
            now = told[a] if is_refused(a) else came[a]
            if now > 1:
                wrong.append(f"{a} came {now} times")
            late = self.rec.time(position) - self.judge.marked.get(a, 1e12) - self.judge.slack
            if now and not is_refused(a) and late > 0:
                wrong.append(f"{a} came again, {late + self.judge.slack:.2f} s after its mark")
            if now and deleted and deleted.verb == "delete":
                wrong.append(f"{a} was deleted and came")
            if (owed or whole) and not now and before > position and m.id not in self.held:
                wrong.append(f"{a} of message {m.number} is lost")
        return wrong

    def close(self):
        if self.p.process:
            self.p.kill()
        self.sink.stop()


def try_all(directory, rec, judge, samples, seed):
    """Restarts with each of these (position, policy, trees of spool and database); what is
    wrong."""
    restart, wrong = Restart(os.path.join(directory, "restart"), rec, judge, seed), []
    try:
        for position, policy, tree, accounts in samples:
            broken = restart.run(position, tree, accounts)
            wrong += [f"restart after cut {position}, {policy}: {b}" for b in broken]
            if broken:
                powercut_check.build_tree(
                    os.path.join(directory, f"restart-{position}-{policy}"), tree)
                print(restart.p.log()[-3000:], file=sys.stderr)
    finally:
        restart.close()
    return wrong
