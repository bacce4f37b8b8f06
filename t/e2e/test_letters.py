"""Letters to the owners of accounts: quota hands them to qmgr, and each comes once."""
import glob
import os
import time

import pytest
from accounts_rig import LETTER, Quota
from postern import wait_until
from qmgr_peers import new_id
from test_account_pools import Asking
from test_charges import Both

HALF = "plan p { messages = 10\n at_limit = allow\n alerts = {50} }\n"
OTHERS = ("ipc_charges", "ipc_charges_released", "ipc_account_ask")


def hand_over(qmgr, id, content="Subject: half\r\n\r\nof it\r\n", until_taken=True):
    """Until qmgr says that it has it, as quota does."""
    def ask():
        qmgr.quota.send("ipc_account_notice", tag=1, id=id, recipient="owner@acme.test", flags=1,
                        content=content)
        return qmgr.quota.expect("ipc_account_noticed", skip=OTHERS).error.decode()
    if not until_taken:
        return ask()
    return wait_until(lambda: ask() == "", 20, "qmgr's word")


def charged(qmgr):
    """The next batch, and its charges."""
    batch = qmgr.quota.expect("ipc_charges", skip=OTHERS[1:])
    return batch.batch, {c.id.decode(): c.flags for c in batch.charges}


def content_of(qmgr, id):
    (path,) = glob.glob(f"{qmgr.directory}/spool/new/*/{id}")
    with open(path, "rb") as f:
        return f.read()


def deliver(qmgr, letter):
    """Until its file has the mark: before that, a crash may send it again (P4)."""
    before = content_of(qmgr, letter)
    qmgr.resolved()
    qmgr.result(qmgr.job())
    wait_until(lambda: content_of(qmgr, letter) != before, 10, "the mark")


@pytest.mark.parametrize("who", ["quota", "qmgr", "both"])
def test_F16_a_letter_that_was_delivered_is_not_sent_again(who):
    """Whoever ends before quota's removal of it is durable."""
    qmgr = Asking()
    letter = new_id()
    hand_over(qmgr, letter)
    _, charges = charged(qmgr)
    assert charges[letter] & LETTER
    deliver(qmgr, letter)
    assert qmgr.files() == [letter]
    if who != "quota":
        qmgr.kill()
        qmgr = Asking(qmgr.directory)
    else:
        qmgr.join()
    batch, charges = charged(qmgr)
    assert charges[letter] & LETTER, "quota has to let go of it"
    if who != "qmgr":  # this quota has the letter still, or again
        hand_over(qmgr, letter)
    assert qmgr.relay.receive(1) is None, "it was sent again"
    qmgr.quota.send("ipc_charged", batch=batch)
    qmgr.wait_files([])
    assert qmgr.master.log().count("to=<owner@acme.test>") == 1
    qmgr.stop()


def test_F16_quota_lets_go_of_a_letter_whose_answer_was_lost():
    """qmgr died before ACCOUNT_NOTICED; what the next one found says it, too."""
    q = Quota(HALF)
    q.account(plan="p", reference="owner@acme.test")
    for _ in range(5):
        q.charge(q.reserve(q.login().ticket).id)
    letter = q.qmgr.expect("ipc_account_notice")
    q.charge(letter.id, owner="", flags=LETTER)
    usage = q.usage()
    q.kill()
    q = q.again(HALF)
    assert q.qmgr.receive(1.5) is None, "the letter was sent again"
    assert q.usage()["messages"] == usage["messages"] == 5, "a letter is charged to nobody"
    q.stop()


class Letters(Both):
    """Both ends are real."""

    def start_quota(self):
        quota = Quota(HALF)
        quota.account(plan="p", reference="good@acme.test")
        return quota


@pytest.mark.parametrize("victim", ["quota", "qmgr", "both"])
def test_F16_one_letter_whoever_is_killed(victim):
    both = Letters()
    for _ in range(5):
        both.qmgr.commit(["good@example.com"], account="acme/web")

    def letters():
        both.work()
        return len(both.seen) - 5
    wait_until(lambda: letters() == 1, 20, "the letter")
    both.qmgr.wait_log("to=<good@acme.test>.*status=sent")
    if victim != "quota":  # the mark of its delivery is on its way to the disk (P4)
        wait_until(lambda: not both.work(0.3), 10, "rest")
    if victim != "qmgr":
        both.quota.kill()
    if victim != "quota":
        both.qmgr.kill()
        for s in both.qmgr.master.listeners:
            s.close()
        both.qmgr = both.start_qmgr()
    if victim != "qmgr":
        both.quota = both.quota.again(HALF)
    both.connect()
    both.qmgr.wait_files([], 20)
    end = time.monotonic() + 2  # quota looks for letters once a second
    while time.monotonic() < end:
        assert letters() == 1, "the letter came twice"
    assert both.quota.usage()["messages"] == 5
    both.stop()


# ---- what quota must not be able to do ------------------------------------------------------------


def test_a_letter_takes_no_other_message_s_place():
    """Not of one that is queued, nor of one that was deleted and can be brought back."""
    both = Both()
    qmgr = both.qmgr
    queued, deleted = (qmgr.commit(["a@example.com"], flags=32) for _ in range(2))
    both.act("delete", deleted)
    before = [content_of(qmgr, id) for id in (queued, deleted)]
    Asking.join(qmgr, ready=False)
    for id in (queued, deleted):
        hand_over(qmgr, id)
    assert [content_of(qmgr, id) for id in (queued, deleted)] == before
    both.stop()


def test_B79_a_letter_takes_no_strange_file_s_place():
    """One of a later version, say, which qmgr leaves alone and does not have in its queue."""
    qmgr = Asking()
    id = qmgr.commit(["a@example.com"], flags=32)
    (path,) = glob.glob(f"{qmgr.directory}/spool/new/*/{id}")
    qmgr.kill()
    with open(path, "r+b") as f:
        f.seek(8)
        f.write(b"\xff\xff")  # its format's version
    before = content_of(qmgr, id)
    qmgr = Asking(qmgr.directory)
    qmgr.wait_log("format version")
    error = wait_until(lambda: (e := hand_over(qmgr, id, until_taken=False)) != "not now" and e,
                       20, "qmgr's answer")
    assert "exists" in error
    assert content_of(qmgr, id) == before
    assert os.path.exists(path)
    qmgr.stop()
