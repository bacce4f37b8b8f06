"""What qmgr tells quota, over crashes of either: every recipient is paid for once."""
import glob
import os
import random
import tempfile

import pytest
from accounts_rig import Quota
from ipc import Closed, pair
from postern import wait_until
from qmgr_peers import FAILED, SENT, Qmgr
from test_qmgr_operator import Control

NEVER = 1  # NOTIFY=NEVER: a failure ends without a notice
PLANS = "plan p { messages = 1000000\n at_limit = allow }\n"


class Both:
    """qmgr and quota, connected; either can be killed and started again."""

    def __init__(self):
        self.directory = tempfile.mkdtemp(prefix="postern-")
        os.chmod(self.directory, 0o755)
        self.qmgr = self.start_qmgr()
        self.quota = self.start_quota()
        self.seen = {}  # (ID, index) to what it came to
        self.connect()

    config = {}

    def start_qmgr(self):
        self.path = os.path.join(self.directory, "control")
        if os.path.exists(self.path):
            os.unlink(self.path)
        return Qmgr({"accounts_enable": "yes", "minimal_backoff_time": "1", **self.config},
                    directory=os.path.join(self.directory, "qmgr"), listen=[self.path])

    act, ask, open = Control.act, Control.ask, Control.open
    send, answer = staticmethod(Control.send), staticmethod(Control.answer)

    def start_quota(self):
        quota = Quota(PLANS)
        quota.account(plan="p")
        return quota

    def act_on_deleted(self, action, *ids):
        last = self.ask(request="queue.action", action=action,
                        select=dict(ids=list(ids), deleted=True))[-1]
        assert last["changed"] == len(ids)

    def connect(self):
        a, b = pair()
        self.quota.qmgr.close()
        self.qmgr.master.master.send("ipc_peer", a.fileno(), service="quota", slot=0, pid=1)
        self.quota.master.master.send("ipc_peer", b.fileno(), service="qmgr", slot=0, pid=1)
        a.close()
        b.close()

    def commit(self, count=1, **fields):
        rcpts = [dict(address=f"{random.choice(['good', 'good', 'bad'])}{i}@example.com",
                      notify=NEVER) for i in range(count)]
        return self.qmgr.commit(rcpts, account="acme/web", **fields)

    def work(self, timeout=0.05):
        """Answers what qmgr asks of resolve and relay; False if there was nothing."""
        busy = False
        while (ask := self.qmgr.resolve.receive(0)) is not None:
            self.qmgr.resolve.queue.insert(0, ask)
            self.qmgr.resolved()
            busy = True
        while (job := self.qmgr.relay.receive(timeout)) is not None:
            outcomes = []
            for r in job.recipients:
                good = r.address.startswith(b"good")
                self.seen[job.id, r.index] = good
                outcomes.append(dict(index=r.index, status=SENT if good else FAILED, stage=9,
                                     code=250 if good else 550,
                                     text="ok" if good else "5.1.1 no such user"))
            self.qmgr.result(job, outcomes=outcomes)
            busy = True
            timeout = 0.01
        return busy

    def finish(self):
        """Until the queue is empty and quota knows it all."""
        def over():
            self.work()
            usage = self.quota.usage()
            return not self.qmgr.files() and \
                usage["delivered"] + usage["refunded"] == len(self.seen) and usage
        return wait_until(over, 60, "the end of all charges")

    def stop(self):
        self.qmgr.stop()
        self.quota.stop()


@pytest.fixture
def both():
    b = Both()
    yield b
    b.stop()


def check(both, usage):
    good = sum(both.seen.values())
    assert usage["delivered"] == usage["messages"] == good
    assert usage["refunded"] == len(both.seen) - good
    user = both.quota.usage(user="web")
    assert (user["delivered"], user["refunded"]) == (usage["delivered"], usage["refunded"])


def test_delivered_and_refunded_recipients(both):
    for n in (1, 3, 60):
        both.commit(n)
    both.qmgr.commit(["good@example.com"])  # nobody's
    wait_until(lambda: not both.work() and not both.qmgr.files(), 30, "an empty queue")
    assert len(both.seen) == 65
    usage = wait_until(lambda: (u := both.quota.usage())["delivered"] + u["refunded"] == 64 and u,
                       20, "all charges")
    failures, _ = both.quota.ask("usage.failures", account="acme")
    assert len(failures) == usage["refunded"]
    assert all(f["reply"].startswith("550 5.1.1 no such user") for f in failures)


def test_F16_file_stays_until_quota_knows_and_quota_may_be_away(both):
    both.commit(1)  # from here on qmgr knows the account's source pool
    both.finish()
    both.quota.kill()
    message = both.commit(1)
    wait_until(lambda: both.work() or len(both.seen) == 2, 10, "a delivery")
    wait_until(lambda: not both.work(0.3), 10, "rest")
    assert both.qmgr.files() == [message]
    both.qmgr.kill()  # nothing was told yet: the file knows it
    both.qmgr = both.start_qmgr()
    assert both.qmgr.relay.receive(1.5) is None, "a delivered recipient was tried again"
    both.quota = both.quota.again(PLANS)
    both.connect()
    check(both, both.finish())


@pytest.mark.parametrize("seed", range(4))
def test_F16_kills_of_quota_and_qmgr_under_load(both, seed):
    random.seed(seed)
    for _ in range(12):
        for _ in range(random.randrange(1, 15)):
            both.commit(random.choice([1, 1, 1, 5]))
            if random.random() < 0.5:
                both.work(0)
        victim = random.choice(["qmgr", "quota", "both", "none"])
        if victim in ("qmgr", "both"):
            try:  # messages that are under way have no answer yet
                both.commit(2, answer=None)
                both.work(random.choice([0, 0.02]))
            except Closed:
                pass
        if victim in ("quota", "both"):
            both.quota.kill()
        if victim in ("qmgr", "both"):
            both.qmgr.kill()
            both.qmgr = both.start_qmgr()
        if victim in ("quota", "both"):
            both.quota = both.quota.again(PLANS)
        if victim != "none":
            both.connect()
    check(both, both.finish())


def test_client_pays_what_it_sent_whoever_dies(both):
    """Neither the prefix nor what of the body is ours; the spool knows it, too."""
    body = b"Subject: x\r\n\r\nHello\r\n"
    both.commit(1)
    both.finish()
    before = both.quota.usage()
    assert before["bytes"] == len(body) * before["messages"]
    both.quota.kill()
    both.qmgr.commit(["good@example.com"] * 2, account="acme/web", body=body, added=4, flags=32)
    both.qmgr.commit(["good@example.com"], account="acme/web", body=body, added=0, flags=32)
    restarted(both)
    both.quota = both.quota.again(PLANS)
    both.connect()
    wait_until(lambda: both.quota.usage()["messages"] == before["messages"] + 3, 20, "the charges")
    want = before["bytes"] + 3 * len(body) - 2 * 4
    assert both.quota.usage()["bytes"] == want
    assert both.quota.usage(user="web")["bytes"] == want


# ---- what is deleted or damaged ---------------------------------------------------------------


class Forgetful(Both):
    """Where a deletion is for good at once."""
    config = {"queue_undelete_time": "0"}


def restarted(both):
    both.qmgr.kill()
    for s in both.qmgr.master.listeners:
        s.close()
    both.qmgr = both.start_qmgr()


def refunded_all(both, count):
    def known():
        both.work(0)
        u = both.quota.usage()
        return u["delivered"] + u["refunded"] == count + len(both.seen) and u
    usage = wait_until(known, 30, "the end of all charges")
    check_refunds(both, usage, count)


def check_refunds(both, usage, count):
    good = sum(both.seen.values())
    assert usage["messages"] == usage["delivered"] == good, usage
    assert usage["refunded"] == len(both.seen) - good + count, usage


@pytest.mark.parametrize("kind", [Both, Forgetful])
@pytest.mark.parametrize("dies", [False, True])
def test_deleted_while_quota_is_away(kind, dies):
    """Not delivered, so not paid; also when qmgr ends before quota is back."""
    both = kind()
    both.commit(2)
    both.finish()  # qmgr knows the account's pool
    held = [both.qmgr.commit(["a@example.com"], account="acme/web", flags=32) for _ in range(20)]
    wait_until(lambda: both.quota.usage()["reserved"] == 0 and
               both.quota.usage()["messages"] == 20 + sum(both.seen.values()), 10, "the charges")
    both.quota.ask("account.set", account="acme", note="x")  # answered when all is durable
    both.quota.kill()
    both.act("delete", *held)
    if kind is Both:
        both.act_on_deleted("delete", *held)
    assert sorted(both.qmgr.files()) == sorted(held), "what only their files know is gone"
    if dies:
        restarted(both)
        wait_until(lambda: not both.ask(request="status")[0]["scanning"], 10, "the end of the scan")
    both.quota = both.quota.again(PLANS)
    both.connect()
    if dies and kind is Both:  # they are kept as any deleted message
        both.act_on_deleted("delete", *held)
    both.qmgr.wait_files([], 30)
    refunded_all(both, 20)
    assert not both.ask(request="queue.list", select=dict(all=True, deleted=True))[:-1]
    both.stop()


def test_what_is_going_for_good_does_not_come_back(both):
    """It is refunded already."""
    both.commit(1)
    both.finish()
    id = both.qmgr.commit(["a@example.com"], account="acme/web", flags=32)
    both.quota.kill()  # with its charge or before it
    both.act("delete", id)
    both.act_on_deleted("delete", id)
    last = both.ask(request="queue.action", action="undelete",
                    select=dict(ids=[id], deleted=True))[-1]
    assert last["changed"] == 0
    both.quota = both.quota.again(PLANS)
    both.connect()
    both.qmgr.wait_files([])
    refunded_all(both, 1)


def test_damaged_while_quota_is_away(both):
    """It cannot be delivered any more; whoever dies meanwhile, it is not paid."""
    both.commit(1)
    both.finish()
    id = both.qmgr.commit(["a@example.com"], account="acme/web", flags=32)
    wait_until(lambda: both.quota.usage()["messages"] == 1 + sum(both.seen.values()), 10,
               "the charge")
    both.quota.ask("account.set", account="acme", note="x")  # answered when all is durable
    both.quota.kill()
    (path,) = glob.glob(f"{both.directory}/qmgr/spool/new/*/{id}")
    with open(path, "r+b") as f:
        f.seek(100)
        f.write(b"damage")
    restarted(both)
    corrupt = f"{both.directory}/qmgr/spool/corrupt/{id}"
    wait_until(lambda: os.path.exists(corrupt), 10, "its quarantine")
    restarted(both)
    both.quota = both.quota.again(PLANS)
    both.connect()
    refunded_all(both, 1)
