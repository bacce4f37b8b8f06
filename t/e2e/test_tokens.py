"""Mail of accounts is let into the queue if quota has reserved it, and not otherwise: what an
smtpd that was taken over would like to do."""
import re

import faults as fault_points
import pytest
from ipc import Closed
from postern import Postern, wait_until
from qmgr_peers import HOLD, HOLD_RATE, Qmgr, Tokens, new_id
from test_charges import Both

BODY = b"Subject: x\r\n\r\nHello\r\n"
needs_clock = pytest.mark.skipif(not fault_points.available(),
                                 reason="a build without fault points")


@pytest.fixture
def q():
    q = Qmgr({"accounts_enable": "yes"})
    yield q
    q.stop()


def of_acme():
    """A COMMIT's fields that a token speaks of."""
    return dict(account="acme/web", sender="s@client.test", id=new_id(), body=BODY,
                prefix=b"Received: by test\r\n", recipient_count=1)


def refused(q, **fields):
    """A COMMIT that is not taken."""
    q.commit(answer="ipc_refused", **{"account": "acme/web", **fields})
    assert (q.answer.code, q.answer.enhanced) == (451, b"4.3.0")


def test_without_a_token_only_mail_of_nobody_is_taken(q):
    refused(q, token=b"")
    refused(q, token=bytes(29))
    refused(q, token=b"x" * 500)
    q.wait_files([])
    id = q.commit(token=b"")
    taken = q.commit(account="acme/web")
    q.wait_files([id, taken])
    assert "ALARM" not in q.log(), "it may be a token of the qmgr before"
    assert len(re.findall("its reservation is too old, or of the time before", q.log())) == 1


@pytest.mark.parametrize("other", [
    dict(account="victim/web"), dict(account="acme"), dict(sender="boss@victim.test"),
    dict(id=new_id()), dict(body=BODY + b"more\r\n"),
    dict(recipients=["a@example.com", "b@example.com"]), dict(added=1)],
    ids=lambda o: next(iter(o)))
def test_a_token_is_for_one_message(q, other):
    fields = of_acme()
    token = q.tokens.of(fields)
    recipients = other.get("recipients", ("a@example.com",))
    refused(q, token=token, **{**fields, **other, "recipient_count": len(recipients)})
    q.wait_files([])
    q.commit(token=token, **fields)
    q.wait_files([fields["id"]])


def test_a_token_lets_one_message_in(q):
    """Also when the first is delivered, and its ID is free again."""
    fields = of_acme()
    token = q.tokens.of(fields)
    id = q.commit(token=token, **fields)
    quota = q.add_quota()
    quota.expect("ipc_token_key")
    quota.send("ipc_charges_ready", credit=64)
    quota.send("ipc_account_pool", account=quota.expect(
        "ipc_account_ask", skip=("ipc_charges",)).account, pool="")
    q.resolved()
    q.result(q.job())
    q.wait_log(f"{id}: to=.*status=sent")
    while not (charges := quota.expect("ipc_charges")).settlements:
        quota.send("ipc_charged", batch=charges.batch)
    quota.send("ipc_charged", batch=charges.batch)
    q.wait_files([])
    refused(q, token=token, **fields)
    q.wait_files([])
    q.wait_log(f"{id}: ALARM: not taken from smtpd 0 .process .* as mail of acme/web, 1 "
               "recipients, with a reservation that was used before")
    quota.close()


@pytest.mark.parametrize("hold", [HOLD, HOLD_RATE])
def test_a_hold_cannot_be_left_out(q, hold):
    fields = of_acme()
    token = q.tokens.of(fields, hold=hold)
    refused(q, token=token, **fields)
    q.wait_log("ALARM: not taken from smtpd 0 .*without the hold that its reservation asks for")
    q.commit(token=token, flags=hold, **fields)
    q.wait_files([fields["id"]])


def test_a_token_that_is_too_old(q):
    fields = of_acme()
    refused(q, token=q.tokens.of(fields, age=545), **fields)
    q.wait_log("not taken from smtpd 0 .*: its reservation is too old")
    assert "ALARM" not in q.log()


@needs_clock
def test_a_false_token_is_an_alarm_when_no_honest_one_can_be_left(place):
    faults = fault_points.Faults(place)
    q = Qmgr({"accounts_enable": "yes"}, environment=faults.environment)
    faults.shift("mono", 1500)
    for _ in range(50):
        refused(q, token=bytes(29))
    q.wait_log("ALARM: not taken from smtpd 0 .* as mail of acme/web, 1 recipients, which was "
               "not reserved as such")
    assert len(re.findall("ALARM", q.log())) < 10, "the log is filled"
    q.stop()


def test_F16_the_key_is_the_same_for_quota_s_next_process_and_another_one_for_qmgr_s():
    q = Qmgr({"accounts_enable": "yes"})
    keys = [Tokens(q.add_quota().expect("ipc_token_key")) for _ in range(2)]
    assert keys[0].key == keys[1].key == q.tokens.key
    assert q.tokens.next < keys[0].next < keys[1].next
    q.commit(account="acme/web")
    q.tokens = keys[1]
    q.commit(account="acme/web")
    q.kill()
    again = Qmgr({"accounts_enable": "yes"}, directory=q.directory)
    assert again.tokens.key != q.tokens.key
    again.tokens, own = q.tokens, again.tokens
    refused(again)
    again.tokens = own
    again.commit(account="acme/web")
    again.stop()


def test_accounts_that_are_off_want_none():
    q = Qmgr()
    q.commit(account="acme/web")
    q.stop()


def test_mail_of_nobody_from_an_smtpd_whose_clients_have_accounts():
    q = Qmgr({"accounts_enable": "yes", "mynetworks_account": "own"})
    other = q.master.peer("smtpd", 1, pid=4710)
    q.master.master.send("ipc_owners_only", pid=4711)
    strict = q.master.peer("smtpd", 2, pid=4711)
    for peer in (other, strict):
        peer.expect("ipc_spool_state")
    q.commit(smtpd=other)
    refused(q, smtpd=strict, account="")
    q.wait_log("ALARM: not taken from smtpd 2 .process 4711. as mail of nobody, 1 recipients, "
               "though all of its clients have accounts: the process may have been taken over")
    q.commit(smtpd=strict, account="acme/web")
    q.master.configure(mynetworks_account="")
    wait_until(lambda: q.commit(smtpd=strict, answer=None) and
               strict.receive().name == "ipc_committed", 10, "the new configuration")
    alarms = q.log().count("ALARM")
    # set again: its sessions have heard from quota that they are nobody's, and keep to that
    q.master.configure(mynetworks_account="own")
    behind = q.master.peer("smtpd", 3)  # told after the configuration
    behind.expect("ipc_spool_state")
    behind.close()
    q.commit(smtpd=strict)
    assert q.log().count("ALARM") == alarms
    other.close()
    strict.close()
    q.stop()


def test_a_process_number_that_comes_again_has_no_owners():
    """What was said of a process holds for its one introduction."""
    q = Qmgr({"accounts_enable": "yes", "mynetworks_account": "own"})
    q.master.master.send("ipc_owners_only", pid=4711)
    first = q.master.peer("smtpd", 2, pid=4711)
    first.expect("ipc_spool_state")
    refused(q, smtpd=first, account="")
    first.close()
    second = q.master.peer("smtpd", 3, pid=4711)
    second.expect("ipc_spool_state")
    q.commit(smtpd=second)
    second.close()
    q.stop()


@pytest.mark.parametrize("setting", ["", "own"])
def test_master_knows_whose_mail_an_smtpd_has(tmp_path, setting):
    with Postern(tmp_path, accounts_enable="yes", accounts_minfree="0", log_level="debug",
                 mynetworks_account=setting) as p:
        wait_until(lambda: p.ctl("account", "status", check=False).returncode == 0, 20, "quota")
        p.ctl("account", "add", "own")
        p.ctl("domain", "add", "own", "client.test")
        p.send("a@client.test", ["b@dst.test"], BODY)
        strict = "all mail of smtpd .* has to be of accounts"
        assert bool(re.search(strict, p.log())) == bool(setting)
        assert "ALARM" not in p.log()


# ---- both ends are real ------------------------------------------------------------------------


@pytest.fixture
def both():
    b = Both()
    yield b
    b.stop()


def reserve(both, code=0):
    """A COMMIT's fields, reserved once quota answers with this code: whether it has the key is its
    channel's matter, not that of who asks."""
    ticket = both.quota.login().ticket

    def answer():
        fields = dict(id=new_id(), body=BODY, prefix=b"", sender="a@acme.test")
        got = both.quota.reserve(ticket, id=fields["id"], size=len(BODY))
        if got.code == code:
            return fields, got
        if got.code == 0:
            both.quota.smtpd.send("ipc_release", id=fields["id"])
        return None
    return wait_until(answer, 10, f"the answer {code}")


def test_what_quota_reserves_qmgr_takes(both):
    fields, answer = reserve(both)
    refused(both.qmgr, token=answer.token, account="acme", **fields)
    both.qmgr.commit(["good@example.com"], token=answer.token, account=answer.owner, **fields)
    both.finish()
    assert both.quota.usage()["delivered"] == 1
    assert "ALARM" not in both.quota.master.log()


def test_F16_without_a_queue_nothing_is_reserved(both):
    """Its key is gone, and with it who would take the message."""
    both.qmgr.kill()
    _, answer = reserve(both, 451)
    assert answer.token == b"" and answer.owner == b""
    assert both.quota.usage()["reserved"] == 0
    for s in both.qmgr.master.listeners:
        s.close()
    both.qmgr = both.start_qmgr()
    both.connect()
    fields, answer = reserve(both)
    both.qmgr.commit(["good@example.com"], token=answer.token, account=answer.owner, **fields)


@pytest.mark.parametrize("key", [b"", b"k" * 31, b"k" * 33], ids=len)
def test_B89_a_key_of_another_length(both, key):
    qmgr = both.quota.master.peer("qmgr")
    qmgr.send("ipc_token_key", key=key, first=1)
    with pytest.raises(Closed):
        while qmgr.receive():
            pass
    assert "malformed TOKEN_KEY" in both.quota.master.log()
