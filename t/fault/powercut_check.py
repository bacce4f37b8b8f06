"""Judges what a power cut left: is all there that the outside was promised?"""
import collections
import json
import os
import re
import shutil
import subprocess

import shim
from soak_check import is_refused, number_of
from soak_clients import ACKED, MAYBE, REFUSED

HOLD, DELETED_FLAG, RECORD_FLAGS = 32, 0x20000, 3   # MESSAGE_..., SPOOL_RECORD_FLAGS
# What an order does to a message's flags.
ORDERS = {"hold": (HOLD, True), "release": (HOLD, False), "delete": (DELETED_FLAG, True),
          "undelete": (DELETED_FLAG, False)}
PENDING, WANTS_NOTICE, SENT, BOUNCED = "PCSB"
ID_LEN = 15
NEVER = 1 << 62
# P4: marks of the last second may be lost; a record of a hold likewise.
MARK_SECONDS = 1.0
FINAL = re.compile(r"^Final-Recipient: *rfc822; *(\S+)\r\nAction: failed\r$", re.M)


class Look:
    """spool-look: the spool engine, started on one directory after the other."""

    def __init__(self, program):
        self.process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True, encoding="utf-8", errors="replace")

    def at(self, directory):
        self.process.stdin.write(directory + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(f"spool-look died on {directory}: {self.process.wait(10)}")
        return json.loads(line)

    def close(self):
        self.process.stdin.close()
        status = self.process.wait(20)
        assert status == 0, f"spool-look ended with {status}"


def build_tree(directory, tree):
    shutil.rmtree(directory, ignore_errors=True)
    os.mkdir(directory)
    for path, content in tree.items():
        place = f"{directory}/{path}"
        if content is None:
            os.mkdir(place, 0o700)
            continue
        fd = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        if content:
            os.write(fd, content)
        os.close(fd)


class Found:
    """What the spool engine made of a directory."""

    def __init__(self, look, directory):
        told = look.at(directory)
        self.error = told.get("error")
        self.messages = {m["id"]: m for m in told.get("messages", ())}
        self.quarantined = told.get("quarantined", 0)
        self.state = told.get("state", 0)
        self.corrupt = {n[:ID_LEN + 2] if "." not in n else n.split(".")[0]
                        for n in os.listdir(directory + "/corrupt")}
        self.left = os.listdir(directory + "/tmp")
        self.flags = {id: flags_of(m) for id, m in self.messages.items()}
        self.reported = collections.defaultdict(set)   # original's ID -> who is in its notices
        for id, m in self.messages.items():
            if len(id) > ID_LEN:
                self.reported[id[:ID_LEN]].update(FINAL.findall(m.get("body", "")))


def flags_of(m):
    flags = m["flags"]
    for r in m["records"]:
        if r["type"] == RECORD_FLAGS:
            flags = r["flags"]
    return flags


def first_times(rec, copies, names):
    first = {}
    for c in copies:
        for r in getattr(c, names):
            first[r] = min(first.get(r, NEVER), rec.position(c.taken))
    return first


class Judge:
    """What the outside knew and was promised, at each position of a recording."""

    def __init__(self, rec):
        self.rec = rec
        self.acked = {m.number: rec.told_by(m.answered) for m in rec.messages.values()
                      if m.answered}
        self.by_id = {m.id: m for m in rec.messages.values() if m.id}
        # recipient -> position from which on the outside has the message, or the notice
        self.delivered = first_times(rec, rec.deliveries, "recipients")
        self.noticed = first_times(rec, rec.notices, "reported")
        self.orders = collections.defaultdict(list)
        for o in rec.orders:
            self.orders[o.id].append(o)
        syncs = [r for r in rec.records if r.end and r.inode and not r.source[0] and not r.data]
        # a mark waits half a second, then for the sync under way and for its own
        self.slack = MARK_SECONDS + 2 * max([(r.end_ns - r.begin_ns) / 1e9 for r in syncs] or [0])
        last = {r.pid: r.begin_ns / 1e9 for r in rec.records if r.call == shim.SEND}
        self.deaths = sorted(last.values())[:-1]
        self.marked = {to: min(times) for (_, to), times in rec.events.items()
                       if not self.forgotten(min(times))}

    def forgotten(self, time):
        """Whether qmgr was killed before what it said at this time had to be durable."""
        return any(time - 0.1 <= d <= time + self.slack for d in self.deaths)

    def judge(self, position, found):
        """What is wrong, as a list of sentences."""
        wrong = []
        if found.error:
            return [f"the spool cannot be opened: {found.error}"]
        if found.state == 2 or found.left:
            wrong.append(f"state {found.state}, left in tmp/: {found.left}")
        for m in self.rec.messages.values():
            if m.state == ACKED and self.acked[m.number] < position:
                wrong += self.judge_owed(position, found, m)
        now = self.rec.time(position)
        for id, f in found.messages.items():
            wrong += self.judge_found(position, now, found, id, f)
        return wrong

    # ---- P1, P3: what is owed

    def judge_owed(self, position, found, m):
        if m.id in found.corrupt:
            return [f"{m.id} was acknowledged and is in corrupt/"]
        f = found.messages.get(m.id)
        if f and f["error"]:
            return [f"{m.id} was acknowledged and cannot be read: {f['error']}"]
        if f and f["recipients"] != m.recipients:
            return [f"{m.id} has other recipients than it was acknowledged for"]
        for i, address in enumerate(m.recipients):
            status = f["status"][i] if f else None
            noticed = address in found.reported[m.id] or self.noticed.get(address, NEVER) <= position
            good = (status in (PENDING, WANTS_NOTICE) or
                    status in (SENT, None) and self.delivered.get(address, NEVER) <= position or
                    status in (BOUNCED, None) and is_refused(address) and noticed)
            if not good:
                return [f"{m.id} was acknowledged, and nothing is known of {address}: "
                        f"{'its status is ' + status if status else 'the file is gone'}"]
        return []

    # ---- P2, P4: what is there

    def judge_found(self, position, now, found, id, f):
        if len(id) > ID_LEN:
            return self.judge_notice(id, f)
        m = self.by_id.get(id) or self.rec.messages.get(number_of(f["sender"]))
        if m is None:
            return [f"{id} from {f['sender']} was never submitted"]
        acked = m.state == ACKED and self.acked[m.number] < position
        if f["error"] and not acked:
            return []      # it is in corrupt/ now, and nobody was promised anything
        if f["recipients"] != m.recipients or f["sum"] != m.sum:
            return [f"{id} is not as it was submitted"]
        if m.state == REFUSED and self.acked[m.number] < position:
            return [f"{id} was refused with {m.reply!r} and is there"]
        if m.state not in (ACKED, MAYBE, REFUSED):
            return [f"{id} was never sent to its end and is there"]
        wrong = []
        for address, status in zip(f["recipients"], f["status"]):
            late = now - self.marked.get(address, now) - self.slack
            if status == PENDING and late > 0 and not found.flags[id] & DELETED_FLAG:
                wrong.append(f"{address} was marked as delivered {late + self.slack:.2f} s ago "
                             "and would be sent again")
        return wrong + self.judge_orders(now, found, id)

    def standing(self, now, id, flag):
        """The last order about this flag, if it is old enough to be durable and no later
        one was begun; an undelete may change the others."""
        orders = [o for o in self.orders.get(id, ()) if ORDERS[o.verb][0] in (flag, DELETED_FLAG)]
        past = [o for o in orders if o.begun <= now]
        if past and past[-1].done + self.slack <= now and ORDERS[past[-1].verb][0] == flag and \
                not self.forgotten(past[-1].done):
            return past[-1]
        return None

    def judge_orders(self, now, found, id):
        """What the operator was told to be done is not forgotten."""
        wrong = []
        for flag in (HOLD, DELETED_FLAG):
            order = self.standing(now, id, flag)
            if order and ORDERS[order.verb][1] != bool(found.flags[id] & flag):
                wrong.append(f"{id} was told to {order.verb} and this is forgotten")
        return wrong

    def judge_notice(self, id, f):
        m = self.by_id.get(id[:ID_LEN]) or \
            self.rec.messages.get(number_of(f["recipients"][0]))
        if f["error"]:
            return []
        if m is None or f["recipients"] != [m.sender]:
            return [f"the notice {id} is about no message"]
        strange = set(FINAL.findall(f.get("body", ""))) - set(m.recipients)
        return [f"the notice {id} reports {strange}"] if strange else []
