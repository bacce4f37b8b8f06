"""Export of accounts in service is one moment, whatever changes while it is read."""
import json
import random
import struct
import time

import pytest
from accounts_rig import DELIVERED, FRESH, REFUNDED, RESERVED, Quota, Refused
from patience import stretched
from qmgr_peers import new_id

PLANS = "plan p { messages = 100000000\n at_limit = allow }\n"
OTHERS = ("ipc_charged", "ipc_charges_query", "ipc_account_notice", "ipc_account_pool")


@pytest.fixture
def quota():
    q = Quota(PLANS)
    yield q
    q.stop()


def decode(record):
    """The user, the accounts and the states of a charge's record (quota/records.c)."""
    data, at = bytes.fromhex(record), 1

    def text():
        nonlocal at
        n = data[at]
        at += 1 + n
        return data[at - n:at].decode()

    user, levels, states = text(), [], []
    count = data[at]
    at += 1
    for _ in range(count):
        levels.append(text())
        at += 16
    at += 8 + 3 * 8
    (recipients,) = struct.unpack_from("<I", data, at)
    at += 4
    while at < len(data):
        state, run = struct.unpack_from("<BI", data, at)
        states += [state] * run
        at += 5
    assert len(states) == recipients
    return user, levels, states


def check_sums(records):
    """Usage of each account and user is the sum of the charges."""
    sums = {}
    for r in records:
        if r["type"] == "charge":
            user, levels, states = decode(r["record"])
            for owner in levels + [f"{levels[0]}/{user}"]:
                s = sums.setdefault(owner, [0, 0, 0])
                for state in (RESERVED, DELIVERED, REFUNDED):
                    s[state] += states.count(state)
    usage = {r["owner"]: r["counts"] for r in records if r["type"] == "usage"}
    assert set(usage) == set(sums)
    for owner, (reserved, delivered, refunded) in sums.items():
        counts = usage[owner]
        assert counts[0] == reserved + delivered, f"{owner}: {counts} {sums[owner]}"
        assert (counts[2], counts[4]) == (delivered, refunded), f"{owner}: {counts}"
    return sums


class Traffic:
    """Mail of some accounts, charged and settled without end."""

    def __init__(self, quota, seed, accounts):
        self.quota, self.random, self.accounts = quota, random.Random(seed), accounts
        self.open = []

    def batch(self, count):
        q, rnd = self.quota, self.random
        charges, settlements = [], []
        for _ in range(count):
            n, account = rnd.choice([1, 1, 1, 3]), rnd.choice(self.accounts)
            id = new_id()
            charges.append(dict(id=id, owner=f"{account}/u-{account}", arrival=1, size=1000,
                                recipients=n, flags=0))
            self.open.append(id)
        rnd.shuffle(self.open)
        for _ in range(count * 2 // 3):
            settlements.append(dict(id=self.open.pop(), recipients=b"",
                                    state=rnd.choice([DELIVERED, DELIVERED, REFUNDED])))
        q.batch += 1
        q.qmgr.send("ipc_charges", batch=q.batch, charges=charges, settlements=settlements)

    def drain(self):
        while (m := self.quota.qmgr.receive(0)) is not None:
            assert m.name in OTHERS, m

    def wait(self):
        while True:
            m = self.quota.qmgr.expect("ipc_charged", 30, skip=OTHERS[1:])
            if m.batch >= self.quota.batch:
                return


def exported(quota, meanwhile, piece=30000):
    """The records of an export whose reader is slower than the mail: `meanwhile` is called
    between two pieces."""
    quota.connect()
    quota.connection.sendall(b'{"request":"export"}\n')
    data, steps = b"", 0
    while b'\n{"done":' not in data[-200:]:
        more = quota.connection.recv(piece)
        assert more, "the connection was closed"
        data += more
        if steps < 60:
            meanwhile(steps)
        steps += 1
    quota.connection.close()
    quota.connection = None
    assert steps > 20, "it was over before anything changed"
    return [json.loads(line) for line in data.splitlines()[:-1]]


def imported(records):
    other = Quota(PLANS)
    try:
        for at in range(0, len(records), 5000):
            other.ask("import", records=records[at:at + 5000],
                      more=at + 5000 < len(records))
        again, _ = other.ask("export")
        usage = {a: other.usage(a) for a in ("top", "aa", "mm", "zz")}
    finally:
        other.stop()
    return again, usage


@pytest.mark.parametrize("seed", range(3))
def test_export_while_mail_is_charged(quota, seed):
    quota.ask("account.add", account="top", plan="p")
    for name in ("aa", "mm", "zz"):
        quota.account(name, f"u-{name}", domain=f"{name}.test", plan="p", parent="top")
    traffic = Traffic(quota, seed, ["aa", "mm", "zz"])
    for _ in range(12):
        traffic.batch(700)
        traffic.wait()

    def meanwhile(step):
        traffic.batch(100)
        traffic.drain()
    records = exported(quota, meanwhile)
    sums = check_sums(records)
    again, usage = imported(records)
    assert check_sums(again) == sums
    assert usage["top"]["messages"] == sum(usage[a]["messages"] for a in ("aa", "mm", "zz"))
    for owner in ("top", "aa", "mm", "zz"):
        assert usage[owner]["messages"] == sums[owner][RESERVED] + sums[owner][DELIVERED]
    # nothing stays behind: the next one is of a later moment
    later, _ = quota.ask("export")
    assert check_sums(later)["top"] != sums["top"]


def test_export_while_accounts_are_changed(quota):
    """What is added, changed and deleted meanwhile is as it was when the export began."""
    quota.ask("import", records=[{"type": "account", "account": f"a{i:05}", "note": "x" * 150}
                                 for i in range(8000)])
    before, _ = quota.ask("export")
    other = Quota.__new__(Quota)
    other.__dict__.update(quota.__dict__)
    other.connection = None

    def meanwhile(step):
        for n in (step * 130, 7999 - step):
            other.ask("account.set", account=f"a{n:05}", note="changed")
            other.ask("account.delete", account=f"a{n + 1 if n < 7999 else 60:05}")
            other.ask("account.add", account=f"a{n:05}b")
    records = exported(quota, meanwhile)
    other.connection.close()
    assert sorted(json.dumps(r, sort_keys=True) for r in records) == \
        sorted(json.dumps(r, sort_keys=True) for r in before)
    after, _ = quota.ask("export")
    assert sum(r.get("note") == "changed" for r in after) > 20


def test_accounts_above_come_first(quota):
    """However they are called: an import wants them before those below."""
    for name, parent in (("zz", ""), ("mm", "zz"), ("aa", "mm"), ("bb", "zz")):
        quota.account(name, None, domain=None, parent=parent)
    records, _ = quota.ask("export")
    assert [r["account"] for r in records] == ["zz", "mm", "aa", "bb"]
    other = Quota(PLANS)
    try:
        other.ask("import", records=records)
        assert other.ask("export")[0] == records
    finally:
        other.stop()


def test_too_many_exports_at_the_same_time(quota):
    """A reader that stops does not keep the others out, four of them do, until they are gone."""
    quota.ask("import", records=[{"type": "account", "account": f"a{i:05}", "note": "x" * 190}
                                 for i in range(8000)])
    readers = []
    for _ in range(4):
        quota.connect()
        quota.connection.sendall(b'{"request":"export"}\n')
        assert quota.connection.recv(1000)
        readers.append(quota.connection)
    quota.connect()
    with pytest.raises(Refused, match="4 exports are under way"):
        quota.ask("export")
    for r in readers:
        r.close()
    began = time.monotonic()
    while True:
        try:
            assert len(quota.ask("export")[0]) == 8000
            break
        except Refused:
            assert time.monotonic() - began < stretched(10)
