"""Mail that is held for its account's rate: it waits for nothing else than it has to, costs
nothing meanwhile, and no crash leaves it behind."""
import os
import time

import faults as fault_points
import pytest
from accounts_rig import HELD_RATE, Quota
from ipc import Closed
from postern import wait_until
from qmgr_peers import Qmgr, new_id
from test_charges import Both

pytestmark = pytest.mark.skipif(not fault_points.available(), reason="built without fault points")

RATE = 20000
PLANS = f"""
plan fast {{ account_rate = {{{RATE}/minute}}
 rate_action = queue }}
"""
HELD, OPEN = 100000, 500
FEW = 20  # records, where one account waits
OLD_CHARGES = 1010  # records, where one question of the sweep falls into it
HOLD_RATE = 128
OTHERS = ("ipc_charged", "ipc_charges_query", "ipc_account_notice", "ipc_account_pool")


# ---- many -----------------------------------------------------------------------------------


class Work:
    """What quota does of its own accord: its looks at what is held, and the records that it reads
    and the changes that it makes meanwhile."""

    POINTS = ("quota.release", "kv.read", "kv.apply")

    def __init__(self, faults):
        self.faults, self.counters = faults, [faults.count(p) for p in self.POINTS]

    def done(self):
        return [self.faults.visits(c) for c in self.counters]

    def during(self, looks):
        """(Records read, changes made) during so many looks."""
        before = self.done()
        wait_until(lambda: self.done()[0] >= before[0] + looks, 10 * looks, "quota's looks")
        return [now - then for now, then in zip(self.done(), before)][1:]


def answer(quota, seconds):
    """Answers all that is released until there is nothing for so long; how many."""
    count = 0
    while (m := quota.qmgr.receive(seconds)) is not None:
        if m.name == "ipc_charges_release":
            quota.qmgr.send("ipc_charges_released", id=m.id)
            count += 1
        else:
            assert m.name in OTHERS, m
    return count


class Minutes:
    """quota's wall time."""

    def __init__(self, place):
        self.faults = fault_points.Faults(place)
        self.base = int(time.time()) // 60 * 60 + 60

    def at(self, minute):
        """Some seconds after such a minute has begun."""
        self.faults.clear()
        self.faults.shift("wall", int(self.base + 60 * minute + 3 - time.time()))


def test_a_hundred_thousand_of_a_suspended_account(place):
    """Twenty thousand a minute may go; the account is suspended while they wait."""
    clock = Minutes(place)
    clock.at(0)
    quota = Quota(PLANS, environment=clock.faults.environment)
    quota.account(plan="fast")
    quota.account("other", "other", domain=None, plan="fast")
    quota.ask("account.set", account="acme", status="suspended")
    for _ in range(HELD // OPEN):
        quota.charges([dict(id=new_id(), owner="acme/web", arrival=1, size=1000, recipients=1,
                            flags=HELD_RATE) for _ in range(OPEN)])
    quota.charge(new_id(), owner="other/other", flags=HELD_RATE)
    assert answer(quota, 3) == 1  # another account's is not behind them
    work = Work(clock.faults)
    wait_until(lambda: work.during(1)[0] < FEW, 60, "all of them parked")
    read, changes = work.during(4)
    # a question to the queue manager about old charges may fall into it
    assert read < 4 * FEW + OLD_CHARGES and changes == 0, \
        f"{read} records, {changes} changes for mail that waits"
    # they leave at the rate, in the minutes after the account can send again
    clock.at(10)
    quota.ask("account.set", account="acme", status="active")
    for minute in range(HELD // RATE):
        clock.at(10 + minute)
        assert answer(quota, 4) == RATE, f"in minute {minute}"
    clock.at(10 + HELD // RATE)
    assert answer(quota, 3) == 0
    quota.stop()


def test_ten_thousand_of_a_suspended_user(place):
    """A password was stolen: the user is suspended, the account's other users go on."""
    clock = Minutes(place)
    clock.at(0)
    quota = Quota(PLANS, environment=clock.faults.environment)
    quota.account(plan="fast")
    quota.ask("user.add", login="other", account="acme", password="secret")
    quota.ask("user.set", login="web", status="suspended")
    for _ in range(10000 // OPEN):
        quota.charges([dict(id=new_id(), owner="acme/web", arrival=1, size=1000, recipients=1,
                            flags=HELD_RATE) for _ in range(OPEN)])
    quota.charge(new_id(), owner="acme/other", flags=HELD_RATE)
    quota.charge(new_id(), owner="acme", flags=HELD_RATE)
    assert answer(quota, 3) == 2
    work = Work(clock.faults)
    wait_until(lambda: work.during(1)[0] < FEW, 60, "all of it parked")
    # the account's suspension has nothing to do with it, and does not end it
    for status in ("suspended", "active"):
        quota.ask("account.set", account="acme", status=status)
        assert answer(quota, 2.5) == 0
    quota.kill()
    quota = quota.again(PLANS, environment=clock.faults.environment)
    assert answer(quota, 2.5) == 0
    # both of them, in either order
    quota.ask("account.set", account="acme", status="suspended")
    quota.ask("user.set", login="web", status="active")
    assert answer(quota, 2.5) == 0
    quota.ask("account.set", account="acme", status="active")
    assert answer(quota, 3) == 10000
    quota.stop()


def test_suspended_users_with_the_longest_names(place):
    """Whatever they are called, and whatever comes behind them."""
    quota = Quota(PLANS)
    account, user = "a" * 64, "u" * 190
    quota.account(account, user, plan="fast", domain=None)
    quota.account("zebra", "zoe", plan="fast", domain=None)
    for login in (user, "zoe"):
        quota.ask("user.set", login=login, status="suspended")
    ids = [new_id() for _ in range(2)]
    quota.charge(ids[0], owner=f"{account}/{user}", flags=HELD_RATE)
    quota.charge(ids[1], owner="zebra/zoe", flags=HELD_RATE)
    assert answer(quota, 3) == 0
    for login, id in (("zoe", ids[1]), (user, ids[0])):
        quota.ask("user.set", login=login, status="active")
        assert quota.qmgr.expect("ipc_charges_release", 5, skip=OTHERS).id.decode() == id
        quota.qmgr.send("ipc_charges_released", id=id)
    quota.stop()


def test_resumed_within_its_minute(place):
    """Who did not lose a turn does not wait for another one, and what was suspended above counts."""
    clock = Minutes(place)
    clock.at(0)
    quota = Quota(PLANS, environment=clock.faults.environment)
    quota.ask("account.add", account="top")
    quota.account(plan="fast", parent="top")
    for name in ("top", "acme"):
        quota.ask("account.set", account=name, status="suspended")
    id = new_id()
    quota.charge(id, flags=HELD_RATE)
    assert answer(quota, 3) == 0
    quota.ask("account.set", account="acme", status="active")
    assert answer(quota, 2.5) == 0
    quota.ask("account.set", account="top", status="active")
    assert quota.qmgr.expect("ipc_charges_release", 5, skip=OTHERS).id.decode() == id
    # an answer to what was not asked closes the channel
    quota.qmgr.send("ipc_charges_released", id=new_id())
    with pytest.raises(Closed):
        while True:
            quota.qmgr.receive()
    quota.stop()


def test_file_that_cannot_be_read_now_is_released_later(place):
    faults = fault_points.Faults(place)
    quota = Quota(PLANS, environment=faults.environment)
    quota.account(plan="fast")
    id = new_id()
    quota.charge(id, flags=HELD_RATE)
    quota.qmgr.expect("ipc_charges_release", 5, skip=OTHERS)
    quota.qmgr.send("ipc_charges_released", id=id, later=1)
    assert answer(quota, 2.5) == 0
    faults.shift("wall", 70)
    assert answer(quota, 2.5) == 1
    quota.stop()


# ---- over crashes ---------------------------------------------------------------------------


class Held(Both):
    def __init__(self, place):
        self.place = place
        self.faults = fault_points.Faults(place)
        super().__init__()

    def start_quota(self):
        quota = Quota(PLANS, environment=self.faults.environment)
        quota.account(plan="fast")
        return quota

    def start_qmgr(self):
        return Qmgr({"accounts_enable": "yes"}, os.path.join(self.directory, "qmgr"),
                    environment=self.faults.environment)

    def dead(self):
        return [name for name in ("qmgr", "quota")
                if getattr(self, name).master.process.poll() is not None]

    def revive(self, victim):
        self.faults.clear()
        if victim == "qmgr":
            self.qmgr.kill()
            self.qmgr = self.start_qmgr()
        else:
            self.quota.kill()
            self.quota = self.quota.again(PLANS, environment=self.faults.environment)
        self.connect()


POINTS = [("quota", "quota.release"), ("qmgr", "qmgr.release"), ("qmgr", "qmgr.released"),
          ("quota", "quota.released"), ("quota", "quota.apply"), ("quota", "quota.charged")]


@pytest.mark.parametrize("victim,point", POINTS)
@pytest.mark.parametrize("skip", [0, 1])
def test_F16_a_kill_leaves_nothing_held(place, victim, point, skip):
    """At each step from the turn to the answer, of the first message or the second."""
    both = Held(place)
    both.faults.set(point, fault_points.KILL, skip=skip)
    for n in range(2):
        try:
            both.qmgr.commit([f"good{n}@example.com"], account="acme/web", flags=HOLD_RATE,
                             answer=None)
        except Closed:
            pass

    def step():
        try:
            both.work()
        except Closed:
            pass
        return both.dead()
    dead = wait_until(step, 20, f"the end at {point}")
    assert dead == [victim]
    both.revive(victim)
    files = both.qmgr.files
    wait_until(lambda: (both.work(), not files())[1], 30, "an empty queue")
    # and quota knows nothing that it would tell again
    wait_until(lambda: not [r for r in both.quota.ask("export")[0] if r["type"] == "held"], 10,
               "the answer to all of them")
    both.stop()
