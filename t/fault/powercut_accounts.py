"""The power cut with accounts: what the spool and the accounts' database say together.

The rule that is checked, at every cut. A recipient of a message is *delivered* when the
receiving server took it, *refused* when it refused it for good.

1. The database opens by itself, with all its accounts.
2. Every usage is the sum of the charges, in messages and in bytes: nothing is counted without
   the record that keeps it from being counted again, and nothing is recorded that is not counted.
3. Every message that got its 250 is in the spool, from where it is charged (again) after the
   start, or it is charged: all of its recipients, of which the refused are refunded and no
   others. So usage is never less than what was delivered, and no refund is lost.
4. What is charged is in the spool, or is over: nobody pays for mail that the power took back.
5. What counts as delivered was delivered, what is refunded was refused; and a message has one
   charge at most.

A relay that starts on such a state has to end with each recipient counted once, as what it
is: delivered, refunded, or still reserved if its message is held or deleted.

The model of the disk (powercut_disk.py) promises two things more for the database than for the
spool. A file that was synced keeps the name that it got when it was made: Berkeley DB does not
sync the directory when it begins the next file of its log, and ext4, XFS and btrfs make the name
durable with the file. And it takes a syncfs of the queue manager for nothing, as if the
database were on a file system of its own.
"""
import collections
import os
import shutil

from postern import wait_until
import accounts_look
import powercut_check
from powercut_check import NEVER
import powercut_disk
import shim
import soak_accounts
from soak_check import is_refused
from soak_clients import ACKED, MAYBE

SETTLE_SECONDS = 60   # quota asks about open charges ten seconds after it has met qmgr


def directory_of(p):
    return p.path("data", "accounts")


class DatabaseDisk(powercut_disk.Disk):
    """The disk of the accounts' database."""

    def __init__(self, tree, root):
        super().__init__(tree, root)
        self.worth = lambda sync: (sync.call != shim.SYNCFS,) * 2

    def sync(self, r):
        changed = super().sync(r)
        file = self.files.get(r.inode)
        if r.call != shim.FSYNC or not file or file.is_directory or not all(self.worth(r)):
            return changed
        made = [op for op in self.pending if op.file is file and op.over and
                op.record.call == shim.CREATE and op.record.end < r.begin]
        for op in made:
            powercut_disk.apply_name(self.durable, op)
            self.pending.remove(op)
        return changed or bool(made)


class Disks:
    """Both, through the same record of calls."""

    def __init__(self, spool, database):
        self.all = (spool, database)

    def begin(self, r):
        if r.call in (shim.CREATE, shim.MKDIR) and not r.error:
            for disk in self.all:   # an inode that another directory has got now
                if r.source[0] not in disk.files:
                    disk.files.pop(r.inode, None)
        ops = [disk.begin(r) for disk in self.all]
        return ops if any(ops) else None

    def end(self, r, ops):
        ops = ops or (None, None)
        return any([disk.end(r, op) for disk, op in zip(self.all, ops)])


class Database:
    """Looks at states of the database; each different one once."""

    def __init__(self, directory):
        self.place = os.path.join(directory, "accounts")
        self.look, self.known = accounts_look.Look(), {}
        self.forget = lambda found: None   # for mutants

    def find(self, tree):
        key = hash(tuple(sorted((p, c if c is None else hash(c)) for p, c in tree.items())))
        if key not in self.known:
            powercut_check.build_tree(self.place, tree)
            found = self.look.at(self.place)
            self.forget(found)
            self.known[key] = found
        return self.known[key]


class MoneyJudge:
    """Whether spool and database agree; `judge` is the spool's powercut_check.Judge."""

    def __init__(self, rec, judge):
        self.rec, self.judge_of_mail = rec, judge

    def is_delivered(self, position, address):
        return self.judge_of_mail.delivered.get(address, NEVER) <= position

    def is_over(self, position, address):
        return self.is_delivered(position, address) or is_refused(address) and \
            self.judge_of_mail.noticed.get(address, NEVER) <= position

    def judge(self, position, spool, database):
        """What is wrong, as a list of sentences."""
        if "error" in database:
            return [f"the accounts' database: {database['error']}"]
        if database["condition"] == "created" or database["accounts"] != len(soak_accounts.ACCOUNTS):
            return [f"the accounts' database was {database['condition']} and has "
                    f"{database['accounts']} accounts"]
        if "differs" not in database:
            database["differs"] = accounts_look.sums_differ(database)
        wrong = list(database["differs"])
        charges = {c["id"]: c for c in database["charges"]}
        for m in self.rec.messages.values():
            acked = m.state == ACKED and self.judge_of_mail.acked[m.number] < position
            if acked and m.id not in spool.messages:
                wrong += self.judge_gone(m, charges.get(m.id))
        for id, charge in charges.items():
            wrong += self.judge_charge(position, spool, id, charge)
        return wrong

    @staticmethod
    def judge_gone(m, charge):
        """A message whose file was let go of: quota has all that it cannot find out."""
        if charge is None:
            return [f"{m.id} is out of the spool and was never charged"]
        if not charge["levels"] or not charge["user"]:
            return [f"{m.id} is charged to nobody"]
        if len(charge["states"]) != len(m.recipients):
            return [f"{m.id} is charged for {len(charge['states'])} recipients of "
                    f"{len(m.recipients)}"]
        return [f"{m.id} is out of the spool and the refund of {a} is lost"
                for a, s in zip(m.recipients, charge["states"]) if is_refused(a) and s != "F"]

    def judge_charge(self, position, spool, id, charge):
        m = self.message_of(spool, id, charge)
        if m is None and self.may_be_unknown(charge):
            return []
        if m is None:
            return [f"there is a charge of {id}, which was never submitted"]
        wrong = []
        for address, state in zip(m.recipients, charge["states"]):
            if state == "D" and not self.is_delivered(position, address):
                wrong.append(f"{address} of {id} counts as delivered and was not")
            if state == "F" and not is_refused(address):
                wrong.append(f"{address} of {id} was refunded and was not refused")
            if id not in spool.messages and not self.is_over(position, address):
                wrong.append(f"{address} of {id} is charged, and its message is not there")
        return wrong

    def message_of(self, spool, id, charge):
        """By its ID; that of a message whose 250 was lost is in the spool, or the sink has it."""
        m = self.judge_of_mail.by_id.get(id)
        if m is None and id in spool.messages:
            m = self.rec.messages.get(powercut_check.number_of(spool.messages[id]["sender"]))
        if m is None:
            m = self.ids_taken().get(id)
        return m if m and len(charge["states"]) == len(m.recipients) else None

    def may_be_unknown(self, charge):
        """Of a message whose 250 was lost and whose recipients were all refused nobody was
        told the ID."""
        return any(m.state == MAYBE and not m.id and
                   len(m.recipients) == len(charge["states"]) and all(map(is_refused, m.recipients))
                   for m in self.rec.messages.values())

    def ids_taken(self):
        if not hasattr(self, "taken"):
            self.taken = {c.id[:powercut_check.ID_LEN]: self.rec.messages.get(c.number)
                          for c in (*self.rec.deliveries, *self.rec.notices)}
        return self.taken


# ---- a whole relay on such a state --------------------------------------------------------


def place_database(p, tree, owner):
    """Puts a state in the place of a stopped relay's database."""
    place = directory_of(p)
    powercut_check.build_tree(p.path("accounts-state"), tree)
    shutil.rmtree(place)
    os.rename(p.path("accounts-state"), place)
    if owner:
        for base, _, files in os.walk(place):
            for path in [base] + [os.path.join(base, f) for f in files]:
                os.chown(path, *owner)


class Expectation:
    """What each recipient has to count as in the end."""

    def __init__(self, rec, judge, position, copies, waiting):
        """`copies`: deliveries and notices after the start; `waiting`: IDs of messages that are
        held or deleted."""
        self.rec, self.judge, self.position, self.waiting = rec, judge, position, waiting
        deliveries, notices = copies
        self.came = {r for c in deliveries for r in c.recipients} | \
            {r for c in notices for r in c.reported}
        self.ids = {c.number: c.id[:powercut_check.ID_LEN]
                    for c in (*rec.deliveries, *rec.notices, *deliveries, *notices)}

    def states(self, m, id):
        out = ""
        for a in m.recipients:
            before = self.judge.noticed if is_refused(a) else self.judge.delivered
            done = before.get(a, NEVER) <= self.position or a in self.came
            out += "R" if not done and id in self.waiting else "F" if is_refused(a) else "D"
        return out

    def all(self):
        """(message, ID, states) of all messages that are Postern's."""
        for m in self.rec.messages.values():
            acked = m.state == ACKED and self.judge.acked[m.number] < self.position
            here = any(a in self.came or self.judge.delivered.get(a, NEVER) <= self.position or
                       self.judge.noticed.get(a, NEVER) <= self.position for a in m.recipients)
            if acked or m.state in (ACKED, MAYBE) and here:
                id = m.id or self.ids[m.number]
                yield m, id, self.states(m, id)


def wait_settled(p, expectation):
    """Until quota has heard what became of all charges. No complaint if it takes too long:
    the database tells then what is missing."""
    wanted = collections.defaultdict(lambda: [0, 0])
    for m, _, states in expectation.all():
        for i, state in enumerate("DF"):
            wanted[expectation.rec.accounts[m.number]][i] += states.count(state)

    def settled():
        for account, (delivered, refunded) in wanted.items():
            u = soak_accounts.usage(p, account)
            if (u["delivered"], u["refunded"]) != (delivered, refunded):
                return False
        return True
    try:
        wait_until(settled, SETTLE_SECONDS, "an end of all charges")
    except AssertionError:
        pass


def judge_end(p, expectation):
    """The database of a relay that was given a state, had delivered all and was stopped."""
    with accounts_look.Look() as look:
        found = look.at(directory_of(p))
    if "error" in found:
        return [f"the accounts' database: {found['error']}"]
    charges = {c["id"]: c["states"] for c in found["charges"]}
    wrong = accounts_look.sums_differ(found)
    for _, id, states in expectation.all():
        if charges.get(id) != states:
            wrong.append(f"{id} has to count as {states} and counts as {charges.get(id, 'nothing')}")
    return wrong
