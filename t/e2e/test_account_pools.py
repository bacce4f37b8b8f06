"""From which source pool an account's mail goes: quota knows it, qmgr asks."""
import json
import os
import signal

import pytest
from accounts_rig import Quota
from postern import wait_until
from qmgr_peers import Qmgr

PLANS = "plan dedicated { source = high }\nplan plain { messages = 1000 }\n"


def pool_of(quota, account):
    quota.qmgr.send("ipc_account_ask", account=account)
    answer = quota.qmgr.expect("ipc_account_pool")
    assert answer.account == account.encode()
    return answer.pool.decode()


def changed(quota):
    told = quota.qmgr.expect("ipc_account_pool")
    assert told.account == b""


@pytest.fixture
def quota():
    q = Quota(PLANS)
    yield q
    q.stop()


def test_the_account_s_own_its_plan_s_or_the_one_above(quota):
    quota.account("agency", plan="dedicated")
    quota.account("client", user="", domain="", parent="agency")
    quota.account("single", user="", domain="", plan="dedicated", source="own")
    quota.account("plain", user="", domain="", plan="plain")
    assert [pool_of(quota, a) for a in ("agency", "client", "single", "plain", "nobody", "a b\n")] \
        == ["high", "high", "own", "", "", ""]


def test_changes_are_told(quota):
    quota.account(plan="dedicated")
    assert pool_of(quota, "acme") == "high"
    quota.ask("account.set", account="acme", source="other")
    changed(quota)
    assert pool_of(quota, "acme") == "other"
    quota.ask("account.set", account="acme", source="")
    changed(quota)
    assert pool_of(quota, "acme") == "high"
    quota.master.table("plans_file", 0, "plans.conf", "plan dedicated { source = low }\n")
    changed(quota)
    assert pool_of(quota, "acme") == "low"
    quota.ask("import", records=[{"type": "account", "account": "acme", "source": "third"}])
    changed(quota)
    assert pool_of(quota, "acme") == "third"


class Asking(Qmgr):
    """qmgr with a stand-in for quota."""

    def __init__(self, directory=None):
        super().__init__(dict(accounts_enable="yes", event_log_file="events"), directory)
        self.join()

    def join(self, ready=True):
        self.quota = self.add_quota()
        self.quota.expect("ipc_token_key")
        if ready:
            self.ready()

    def ready(self):
        self.quota.send("ipc_charges_ready", credit=64)

    def asked(self, skip=("ipc_charges", "ipc_charges_released")):
        return self.quota.expect("ipc_account_ask", skip=skip).account

    def tell(self, account, pool):
        self.quota.send("ipc_account_pool", account=account, pool=pool)

    def deliver(self):
        self.resolved()
        job = self.job()
        self.result(job)
        return job.id

    def pools(self):
        """Of all deliveries, in order."""
        with open(self.master.events_path, encoding="utf-8") as f:
            return [e["pool"] for e in map(json.loads, f) if e["event"] == "delivered"]

    def quiet(self):
        """Nothing was asked of resolve: the message waits."""
        assert self.resolve.receive(0.3) is None


@pytest.fixture
def qmgr():
    q = Asking()
    yield q
    q.quota.close()
    q.stop()


def delivered(q, count):
    return wait_until(lambda: len(p := q.pools()) == count and p, 10, f"{count} deliveries")


def test_first_message_of_an_account_waits_for_the_answer(qmgr):
    qmgr.commit(account="acme/web")
    assert qmgr.asked() == b"acme"
    qmgr.quiet()
    qmgr.tell("acme", "high")
    qmgr.deliver()
    qmgr.commit(["b@example.net"], account="acme/web")  # known: asks nobody
    qmgr.deliver()
    assert delivered(qmgr, 2) == ["high", "high"]


def test_mail_without_an_account_and_notices_ask_nobody(qmgr):
    qmgr.commit()
    qmgr.deliver()
    assert delivered(qmgr, 1) == [""]
    assert qmgr.quota.receive(0.2) is None


def test_an_old_answer_holds_until_the_new_one_is_there(qmgr):
    qmgr.commit(account="acme")
    qmgr.asked()
    qmgr.tell("acme", "high")
    qmgr.deliver()
    qmgr.tell("", "")
    qmgr.commit(["b@example.net"], account="acme")
    assert qmgr.asked() == b"acme"
    qmgr.deliver()
    qmgr.tell("acme", "low")
    qmgr.commit(["c@example.org"], account="acme")
    qmgr.deliver()
    assert delivered(qmgr, 3) == ["high", "high", "low"]


def test_F16_question_is_asked_again_of_a_new_quota(qmgr):
    qmgr.commit(account="acme")
    qmgr.asked()
    qmgr.quota.close()
    qmgr.join()
    assert qmgr.asked() == b"acme"
    qmgr.tell("acme", "high")
    qmgr.deliver()
    assert delivered(qmgr, 1) == ["high"]


def test_release_for_the_rate_frees_nothing_else(qmgr):
    """What the guard or the operator holds as well stays, and the operator's word frees both."""
    rate = qmgr.commit(["a@example.org"], account="acme", flags=128)
    qmgr.quiet()
    both = qmgr.commit(["b@example.net"], account="acme", flags=128 | 32)
    qmgr.quota.send("ipc_charges_release", id=both)
    qmgr.quota.send("ipc_charges_release", id=rate)
    assert qmgr.asked() == b"acme"
    qmgr.tell("acme", "high")
    assert qmgr.deliver() == rate.encode()
    qmgr.quiet()
    qmgr.quota.send("ipc_charges_release", id=both)
    qmgr.quiet()


def test_charges_say_what_is_fresh_and_what_is_held():
    """Quota needs both words after a crash."""
    qmgr = Asking()
    qmgr.commit(account="acme", flags=128)
    first = qmgr.quota.expect("ipc_charges", skip=("ipc_account_ask",))
    assert [c.flags for c in first.charges] == [3]
    qmgr.quota.send("ipc_charged", batch=first.batch)
    qmgr.commit(["b@example.net"], account="acme", flags=32)
    second = qmgr.quota.expect("ipc_charges", skip=("ipc_account_ask",))
    assert [c.flags for c in second.charges] == [5]
    qmgr.kill()
    again = Asking(qmgr.directory)
    found = again.quota.expect("ipc_charges", skip=("ipc_account_ask",))
    assert sorted(c.flags for c in found.charges) == [2, 4]
    again.quota.close()
    again.own_directory = True
    again.stop()


def test_held_while_it_waits(qmgr):
    """The answer does not wake what the operator has stopped."""
    qmgr.commit(account="acme", flags=32)
    qmgr.commit(["b@example.net"], account="acme")
    assert qmgr.asked() == b"acme"
    qmgr.tell("acme", "high")
    assert qmgr.deliver() == qmgr.files()[-1].encode()
    qmgr.quiet()


@pytest.mark.parametrize("pool", ["x" * 65, "a\nb", "a b"])
def test_B89_pool_that_is_no_name_closes_the_channel(qmgr, pool):
    qmgr.commit(account="acme")
    qmgr.asked()
    qmgr.tell("acme", pool)
    qmgr.wait_log("malformed ACCOUNT_POOL")


def test_F16_batches_keep_their_order_when_quota_is_back(qmgr):
    """A settlement before its charge would be a stranger's, and lost."""
    qmgr.commit(account="acme")
    qmgr.asked(skip=())
    qmgr.tell("acme", "")
    qmgr.resolved()
    job = qmgr.job()
    first = qmgr.quota.expect("ipc_charges")
    assert first.charges and not first.settlements
    qmgr.quota.close()
    qmgr.join(ready=False)
    qmgr.wait_log("channel to quota: ")
    os.kill(qmgr.master.process.pid, signal.SIGSTOP)  # both are read in one turn
    try:
        qmgr.ready()
        qmgr.result(job)
    finally:
        os.kill(qmgr.master.process.pid, signal.SIGCONT)
    again = qmgr.quota.expect("ipc_charges")
    qmgr.quota.send("ipc_charged", batch=again.batch)
    second = qmgr.quota.expect("ipc_charges")
    assert again.batch == first.batch and again.charges
    assert second.batch == first.batch + 1 and second.settlements
