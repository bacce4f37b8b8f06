"""quota: accounts, logins, what may be sent, charges."""
import base64
import hashlib
import json
import os
import shutil
import subprocess
import time

import faults
import pytest
from accounts_rig import (CLIENT, DELIVERED, DENIED, FAILED, NONE, OK, REFUNDED, TEMPORARY,
                          TOO_MANY, Quota, Refused, scram)
from ipc import Closed
from patience import stretched
from postern import Postern, wait_until
from qmgr_peers import new_id

MONTH = 'plan month { messages = 10\n at_limit = block\n zone = "Europe/Berlin" }\n'
PLANS = MONTH + 'plan big { messages = 1000\n at_limit = allow\n report_every = 10 }\n'


@pytest.fixture
def quota():
    q = Quota(PLANS)
    yield q
    q.stop()


# ---- accounts ------------------------------------------------------------------------


def test_accounts_users_and_domains(quota):
    quota.account(plan="month", reference="owner@acme.test")
    shown = quota.one("account.show", account="ACME")
    assert shown["plan"] == "month" and shown["users"] == ["web"]
    assert shown["domains"] == ["acme.test"] and shown["status"] == "active"
    quota.ask("account.add", account="shop", parent="acme")
    assert quota.one("account.show", account="acme")["accounts"] == ["shop"]
    assert [a["account"] for a in quota.ask("account.list")[0]] == ["acme", "shop"]
    user = quota.one("user.show", login="web")
    assert user["hash_kind"] == "$y$" and user["scram"] is True
    assert "password" not in user
    for request, members, words in [
            ("account.add", {"account": "acme"}, "already"),
            ("account.add", {"account": "a b"}, "letters, digits"),
            ("account.add", {"account": "x", "plan": "none"}, "no plan none"),
            ("account.add", {"account": "x", "parent": "nobody"}, "no account nobody"),
            ("account.add", {"account": "x", "reference": "nobody"}, "mail address"),
            ("account.set", {"account": "acme", "parent": "shop"}, "below itself"),
            ("account.set", {"account": "acme", "ends": "2026-02-30"}, "date such as"),
            ("account.delete", {"account": "acme"}, "delete them first"),
            ("user.add", {"login": "x", "account": "acme"}, "needs a password"),
            ("user.add", {"login": "x", "account": "acme", "hash": "plain"}, "no hash"),
            ("domain.add", {"account": "acme", "domain": "a b"}, "Give a domain"),
            ("nonsense", {}, "no such request")]:
        with pytest.raises(Refused, match=words):
            quota.ask(request, **members)
    quota.ask("user.delete", login="web")
    quota.ask("account.delete", account="shop")
    quota.ask("account.delete", account="acme")
    assert quota.ask("account.list")[0] == []
    audit, _ = quota.ask("audit.list")
    assert [a["what"] for a in audit][:2] == ["account acme", "user web"]
    assert all(a["uid"] == os.getuid() for a in audit)
    assert "secret" not in str(audit) and "secret" not in quota.master.log()


def test_B95_random_bytes_on_the_socket(quota):
    quota.connect()
    quota.connection.sendall(os.urandom(5000).replace(b"\n", b"") + b"\n")
    assert b"error" in quota.lines.readline()
    quota.connect()
    assert quota.ask("account.list")[0] == []


# ---- logins --------------------------------------------------------------------------


def test_password_and_cache(quota):
    quota.account()
    answer = quota.login()
    assert answer.status == OK and answer.account == b"acme" and answer.user == b"web"
    first = quota.login("WEB")
    assert first.status == OK and first.ticket
    assert quota.login(password="Secret").status == FAILED
    assert quota.login("nobody").status == FAILED
    start = time.monotonic()
    for _ in range(200):
        assert quota.login().status == OK
    assert time.monotonic() - start < stretched(2), "remembered passwords are hashed again"
    quota.ask("user.set", login="web", password="other")
    assert quota.login().status == FAILED
    assert quota.login(password="other").status == OK
    quota.ask("user.set", login="web", status="suspended")
    assert quota.login(password="other").status == DENIED
    quota.ask("user.set", login="web", status="active")
    quota.ask("account.set", account="acme", status="suspended")
    assert quota.login(password="other").status == DENIED


def test_imported_hashes(quota):
    quota.ask("account.add", account="acme")
    pbkdf2 = "pbkdf2_sha256$1000$salt$" + base64.b64encode(
        hashlib.pbkdf2_hmac("sha256", b"secret", b"salt", 1000)).decode()
    for login, hash, password in [
            ("bcrypt", "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", "U*U"),
            ("sha512", "{SHA512-CRYPT}$6$rounds=10000$saltstringsaltst$OW1/O6BYHV6BcXZu8QVeXbDWra3"
             "Oeqh0sbHbbMCVNSnCM/UrjmM0Dp8vOuZeHBy/YTBmSK6H9qs/y3RnOaw5v.", "Hello world!"),
            ("pbkdf2", pbkdf2, "secret")]:
        quota.ask("user.add", login=login, account="acme", hash=hash)
        assert quota.login(login, password).status == OK
        assert quota.login(login, "wrong").status == FAILED


def test_scram(quota):
    quota.account()
    answer, signature = scram(quota, "web", "secret")
    assert answer.status == OK and answer.message == signature
    assert quota.mail(answer.ticket).code == 0
    assert scram(quota, "web", "wrong")[0].status == FAILED
    assert scram(quota, "nobody", "secret")[0].status == FAILED


def test_scram_does_not_tell_who_exists(quota):
    def salt(user):
        quota.smtpd.send("ipc_auth_scram", tag=quota.next_tag(), client=CLIENT,
                         message=f"n,,n={user},r=x")
        challenge = quota.smtpd.expect("ipc_auth_challenge").message.decode()
        quota.smtpd.send("ipc_auth_abort", tag=quota.tag)
        return challenge.split(",", 1)[1]
    quota.account()
    assert salt("nobody") == salt("nobody") != salt("somebody")
    assert salt("web").split(",")[1] == salt("nobody").split(",")[1]


def sha256_hash(password):
    """As another system made it, of the bytes that its clients happened to send."""
    return "pbkdf2_sha256$1000$salt$" + base64.b64encode(
        hashlib.pbkdf2_hmac("sha256", password, b"salt", 1000)).decode()


@pytest.mark.parametrize("given", ["D\u00fcrer \u00b3", "Du\u0308rer \u00b3",
                                   "Du\u0308rer\u00a03", "D\u00fcr\u00ader 3"])
def test_password_in_any_normal_form(quota, given):
    """SASLprep: the same letters, whichever way the client writes them (RFC 4013)."""
    quota.account(password=given)
    for sent in ["D\u00fcrer 3", "Du\u0308rer 3", "D\u00fcrer\u20033", given]:
        assert quota.login(password=sent).status == OK, ascii(sent)
    for sent in ["Durer 3", "D\u00fcrer 2", "d\u00fcrer 3", "D\u00fcrer3"]:
        assert quota.login(password=sent).status == FAILED, ascii(sent)
    # a client of SCRAM prepares it itself (RFC 5802 section 5.1)
    assert scram(quota, "web", "D\u00fcrer 3")[0].status == OK
    # names: wide letters and a soft hyphen are the same user, no other
    assert quota.login("\uff37e\u00adB", "D\u00fcrer 3").status == OK
    assert quota.login("w\u00e9b", "D\u00fcrer 3").status == FAILED


@pytest.mark.parametrize("stored", ["D\u00fcrer \u00b3".encode(), "Du\u0308rer \u00b3".encode(),
                                    "D\u00fcrer 3".encode()])
def test_imported_hash_of_another_normal_form(quota, stored):
    records = [dict(type="account", account="acme"),
               dict(type="user", account="acme", login="\uff37eb", hash=sha256_hash(stored))]
    quota.ask("import", records=records)
    assert quota.login(password=stored).status == OK
    assert quota.login(password=stored.decode().replace("u\u0308", "\u00fc")).status == OK
    assert quota.login(password="Durer 3").status == FAILED


def test_password_that_is_no_utf_8(quota):
    quota.ask("account.add", account="acme")
    quota.ask("user.add", login="web", account="acme", hash=sha256_hash(b"caf\xe9"))
    assert quota.login(password=b"caf\xe9").status == OK
    assert quota.login(password=b"caf\xc3\xa9").status == FAILED


def test_user_who_has_only_scram_keys(quota):
    quota.account()
    keys = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbs" \
           "T4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
    quota.ask("user.add", login="keys", account="acme", scram=keys)
    assert scram(quota, "keys", "pencil")[0].status == OK
    assert quota.login("keys", "pencil").status == OK
    assert quota.login("keys", "Pencil").status == FAILED


def test_changed_password_is_forgotten_others_are_not(quota):
    """What is remembered is as quick as ever for all but the user that was changed."""
    quota.account()
    logins = [f"u{i}" for i in range(20)]
    for login in logins:
        quota.ask("user.add", login=login, account="acme", password="secret")
        assert quota.login(login).status == OK
    exported, _ = quota.ask("export")
    mine = [r for r in exported if r.get("login") == "u0"]
    quota.ask("user.set", login="web", password="other")
    quota.ask("import", records=mine)

    def duration(login):
        start = time.monotonic()
        assert quota.login(login).status == OK
        return time.monotonic() - start
    hashed = duration("u0")
    others = sorted(duration(login) for login in logins[1:])
    assert others[len(others) // 2] < hashed / 3, "one user's change costs others a hash"
    assert duration("u0") < hashed / 3
    assert quota.login(password="secret").status == FAILED


def test_B16_fifty_failures_are_slower_and_slower_then_refused(quota):
    quota.account()
    delays = []
    for _ in range(50):
        answer = quota.login(password="guess")
        delays.append((answer.status, answer.delay))
    failed = [d for s, d in delays if s == FAILED]
    assert failed == sorted(failed) and failed[0] < 500 and failed[-1] == 10000
    assert delays[-1][0] == TOO_MANY and len(failed) == 20
    # by the address: another user from there; by the user: another address
    quota.ask("user.add", login="two", account="acme", password="secret")
    assert quota.login("two").status == TOO_MANY
    assert quota.login(client=b"\xc6\x33\x64\x01").status == TOO_MANY
    assert quota.login("two", client=b"\xc6\x33\x64\x01").status == OK


def test_B16_a_remembered_password_is_no_oracle(quota):
    """Who has guessed too often is not told that a guess is right, however lately its user
    logged in elsewhere."""
    quota.account()
    assert quota.login().status == OK
    for _ in range(20):
        assert quota.login(password="guess", client=b"\xc6\x33\x64\x01").status == FAILED
    assert quota.login(client=b"\xc6\x33\x64\x01").status == TOO_MANY
    assert quota.login().status == OK


def test_owner_is_not_locked_out_by_others_guesses(quota):
    quota.account()
    assert quota.login().status == OK
    for i in range(30):
        quota.login(password="guess", client=bytes([198, 51, 100 + i, 1]))
    assert quota.login(client=b"\xc6\x33\x64\xff").status in (OK, TOO_MANY)
    quota.ask("user.set", login="web", note="x")  # forgets what is remembered
    assert quota.login(client=CLIENT).status == OK


def test_clients_of_mynetworks(quota):
    quota.smtpd.send("ipc_client_account", tag=1, client=CLIENT)
    assert quota.smtpd.expect("ipc_auth_result").status == NONE
    quota.stop(remove=False)
    q = quota.again(config={"mynetworks_account": "own"})
    quota.__dict__.update(q.__dict__)
    q.smtpd.send("ipc_client_account", tag=1, client=CLIENT)
    assert q.smtpd.expect("ipc_auth_result").status == TEMPORARY
    q.account("own", None, domain="own.test")
    q.smtpd.send("ipc_client_account", tag=2, client=CLIENT)
    answer = q.smtpd.expect("ipc_auth_result")
    assert answer.status == OK and answer.account == b"own" and answer.user == b""
    assert q.reserve(answer.ticket, sender="a@own.test", authors=()).owner == b"own"


def outsider(q, user):
    """The account of a user whom Dovecot or a proxy names."""
    q.smtpd.send("ipc_client_account", tag=q.next_tag(), client=CLIENT, user=user)
    return q.smtpd.expect("ipc_auth_result")


def test_users_of_dovecot_and_of_proxies(quota):
    """Whoever controls an smtpd could name anybody: only where the operator has others
    who verify users; and then their mail is their account's."""
    quota.account()
    answer = outsider(quota, "web")
    assert answer.status == TEMPORARY and not answer.ticket and b"main.cf" in answer.reason
    for config in ({"smtpd_sasl_type": "dovecot"}, {"smtpd_authorized_xclient_hosts": "192.0.2.9"}):
        quota.stop(remove=False)
        quota.__dict__.update(quota.again(MONTH, config={**config, "mynetworks_account": "acme"})
                              .__dict__)
        answer = outsider(quota, "WEB")
        assert (answer.status, answer.account, answer.user) == (OK, b"acme", b"web")
        assert quota.mail(answer.ticket, "a@acme.test").code == 0
        assert quota.mail(answer.ticket, "a@other.test").code == 553
        assert quota.reserve(answer.ticket).owner == b"acme/web"
        assert quota.login().status == OK  # our own go on
        answer = outsider(quota, "stranger")
        assert answer.status == DENIED and answer.reason == b"the user belongs to no account"
        assert outsider(quota, "we\0b").status == DENIED
        assert outsider(quota, "x" * 5000).status == DENIED
    quota.ask("user.set", login="web", status="suspended")
    assert outsider(quota, "web").reason == b"the user is suspended"
    quota.ask("user.set", login="web", status="active")
    quota.ask("account.set", account="acme", status="suspended")
    assert outsider(quota, "web").reason == b"the account is suspended"


def test_account_of_unknown_users_of_others(quota):
    quota.account()
    quota.stop(remove=False)
    q = quota.again(MONTH, config={"smtpd_sasl_type": "dovecot", "external_login_account": "guests"})
    quota.__dict__.update(q.__dict__)
    assert outsider(q, "stranger").status == TEMPORARY
    q.account("guests", None, domain="guests.test")
    answer = outsider(q, "stranger")
    assert (answer.status, answer.account, answer.user) == (OK, b"guests", b"")
    assert q.reserve(answer.ticket, sender="a@guests.test", authors=()).owner == b"guests"
    assert outsider(q, "web").account == b"acme"


# ---- what may be sent --------------------------------------------------------------------


def test_B33_only_the_account_s_own_senders(quota):
    quota.account()
    ticket = quota.login().ticket
    assert quota.mail(ticket, "a@acme.test").code == 0
    assert quota.mail(ticket, "A@ACME.test").code == 0
    assert quota.mail(ticket, "").code == 0  # a bounce of the customer's server
    refused = quota.mail(ticket, "a@other.test")
    assert refused.code == 553 and b"not owned" in refused.text
    assert quota.mail(ticket, "a@sub.acme.test").code == 553
    refused = quota.reserve(ticket, authors=("a@acme.test", "ceo@other.test"))
    assert refused.code == 550 and b"ceo@other.test" in refused.text
    quota.ask("domain.add", account="acme", domain="ceo@other.test")
    assert quota.reserve(ticket, authors=("a@acme.test", "CEO@other.test")).code == 0
    assert quota.mail(ticket, "x@other.test").code == 553
    quota.ask("account.add", account="below", parent="acme")
    quota.ask("user.add", login="sub", account="below", password="secret")
    assert quota.mail(quota.login("sub").ticket).code == 0
    quota.ask("account.set", account="acme", any_sender=True)
    assert quota.mail(ticket, "a@anything.test").code == 0


def test_B89_forged_ticket(quota):
    quota.account()
    ticket = bytearray(quota.login().ticket)
    for i in (0, 5, 12, len(ticket) - 1):
        forged = bytes(ticket[:i]) + bytes([ticket[i] ^ 1]) + bytes(ticket[i + 1:])
        assert quota.mail(forged).code == 421
    assert quota.mail(b"").code == 421
    assert quota.mail(bytes(ticket)).code == 0


def test_ticket_outlives_a_restart(quota):
    quota.account()
    ticket = quota.login().ticket
    quota.kill()
    q = quota.again()
    quota.__dict__.update(q.__dict__)
    assert q.mail(ticket).code == 0
    q.ask("user.set", login="web", status="suspended")
    assert q.mail(ticket).code == 550


def test_answers_to_mail_hold_where_room_is_ample(quota):
    quota.account(plan="big")
    quota.account(name="free", user="other", domain="free.test")
    ticket = quota.login("other").ticket
    answer = quota.mail(ticket, "a@free.test", size=1000)
    assert (answer.code, answer.good_for, answer.good_size) == (0, 1000, 262144)
    assert quota.mail(ticket, "a@free.test", size=262145).good_for == 0
    assert quota.mail(quota.login().ticket).good_for == 1000  # at_limit = allow
    quota.account(name="small", user="third", domain="small.test", plan="month")
    assert quota.mail(quota.login("third").ticket, "a@small.test").good_for == 0
    # what an operator changes ends them, once
    assert quota.mail(ticket, "a@free.test").good_for == 1000
    quota.ask("user.set", login="other", status="suspended")
    assert quota.smtpd.expect("ipc_mail_forget", skip=()).answers > 0
    assert quota.mail(ticket, "a@free.test").code == 550
    quota.ask("user.set", login="other", status="active")
    assert quota.mail(ticket, "a@free.test").code == 421
    ticket = quota.login("other").ticket
    assert quota.mail(ticket, "a@free.test").good_for == 1000
    quota.ask("domain.delete", account="free", domain="free.test")
    assert quota.smtpd.expect("ipc_mail_forget", skip=()).answers > 0
    assert quota.mail(ticket, "a@free.test").code == 553
    assert quota.reserve(ticket, sender="a@free.test", authors=()).code == 553
    quota.ask("domain.add", account="free", domain="free.test")
    assert quota.mail(ticket, "a@free.test").code == 0


def test_B89_malformed_frame_closes_the_channel(quota):
    smtpd = quota.master.peer("smtpd", 1)
    smtpd.expect("ipc_quota_state")
    smtpd.send_raw(b"\x03\x00\x00\x00\x79\x00\x00\x00abc")
    with pytest.raises(Closed):
        smtpd.receive()
    assert quota.ask("account.list")


def test_B92_settlement_out_of_range_is_refused(quota):
    quota.account()
    answer = quota.reserve(quota.login().ticket)
    quota.charge(answer.id)
    quota.qmgr.send("ipc_charges", batch=99,
                    settlements=[dict(id=answer.id, state=DELIVERED, recipients=b"\x01\0\0\0")])
    with pytest.raises(Closed):
        quota.qmgr.receive()
    assert quota.usage()["delivered"] == 0


# ---- charges -------------------------------------------------------------------------------


def test_a_domain_of_other_letters_has_one_name(quota):
    """U-labels in any case and A-labels are the same domain, whoever writes them."""
    quota.account(plan="big", domain="M\u00dcLLER.example")
    quota.ask("domain.add", account="acme", domain="news@gr\u00fcn.example")
    assert quota.one("account.show", account="acme")["domains"] == [
        "news@xn--grn-ioa.example", "xn--mller-kva.example"]
    ticket = quota.login().ticket
    for sender in ("x@m\u00fcller.example", "x@M\u00dcLLER.example", "x@xn--mller-kva.example",
                   "x@XN--MLLER-KVA.EXAMPLE", "News@gr\u00fcn.example", "news@xn--grn-ioa.example",
                   "x\u00e4@m\u00fcller.example"):
        assert quota.mail(ticket, sender=sender.encode()).code == 0, sender
    for sender in ("x@muller.example", "x@gr\u00fcn.example", "x@m\u00fcller.test"):
        assert quota.mail(ticket, sender=sender.encode()).code == 553, sender
    quota.ask("domain.delete", account="acme", domain="m\u00fcller.example")
    assert quota.mail(ticket, sender=b"x@xn--mller-kva.example").code == 553


@pytest.mark.skipif(not shutil.which("db5.3_load"), reason="without db5.3-util")
def test_a_domain_that_is_stored_by_its_letters_is_found(quota):
    """As databases of before have it; it goes by either name."""
    quota.account(plan="big", domain=None)
    names = ["m\u00fcller.example", "news@gr\u00fcn.example"]
    quota.stop(remove=False)
    database = os.path.join(quota.directory, "data", "accounts", "db")
    lines = "".join(f"acme\\00{n}\n{{}}\n" for n in names)
    subprocess.run(["db5.3_load", "-h", database, "-T", "-t", "btree", "identity.db"],
                   input=lines.encode(), check=True, timeout=60)
    quota.__dict__.update(quota.again(PLANS).__dict__)
    assert quota.one("account.show", account="acme")["domains"] == names
    quota.ask("domain.delete", account="acme", domain="M\u00dcLLER.example")
    quota.ask("domain.delete", account="acme", domain="news@xn--grn-ioa.example")
    assert quota.one("account.show", account="acme")["domains"] == []
    with pytest.raises(Refused, match="There is no domain or address xn--mller-kva.example"):
        quota.ask("domain.delete", account="acme", domain="m\u00fcller.example")


def test_count_quota_stops_and_refunds_reopen_it(quota):
    quota.account(plan="month")
    ticket = quota.login().ticket
    sent = [quota.sent(ticket, state=None) for _ in range(10)]
    refused = quota.mail(ticket)
    assert refused.code == 550 and b"used up until" in refused.text
    assert b"Europe/Berlin" in refused.text
    assert quota.reserve(ticket).code == 550
    quota.settle(sent[0].id, REFUNDED, [0], address="x@dst.test", reply="550 5.1.1 no")
    assert quota.mail(ticket).recipients == 1
    usage = quota.usage()
    assert usage["messages"] == 9 and usage["refunded"] == 1 and usage["limit"] == 10
    (failure,), _ = quota.ask("usage.failures", account="acme")
    assert failure["recipient"] == "x@dst.test" and failure["user"] == "web"
    # what is reserved counts before it is charged
    assert quota.reserve(ticket).code == 0
    assert quota.reserve(ticket).code == 550


def test_released_reservation(quota):
    quota.account(plan="month")
    ticket = quota.login().ticket
    answer = quota.reserve(ticket, recipients=10)
    assert answer.code == 0 and quota.reserve(ticket).code == 550
    quota.smtpd.send("ipc_release", id=answer.id)
    assert quota.reserve(ticket, recipients=10).code == 0


def test_repeated_charges_count_once(quota):
    quota.account()
    ticket = quota.login().ticket
    a = quota.reserve(ticket, recipients=3, size=5000)
    for _ in range(3):
        quota.charge(a.id, recipients=3, size=5000)
    for _ in range(2):
        quota.settle(a.id, DELIVERED, [0])
        quota.settle(a.id, REFUNDED, [1])
        quota.settle(a.id, REFUNDED, [0])  # delivered once is delivered
    quota.settle(a.id, DELIVERED)
    usage = quota.usage()
    assert (usage["messages"], usage["delivered"], usage["refunded"]) == (2, 2, 1)
    assert usage["bytes"] == 10000
    user = quota.usage(user="web")
    assert (user["messages"], user["delivered"], user["refunded"]) == (2, 2, 1)


def test_F16_killed_quota_forgets_nothing_it_acknowledged(quota):
    quota.account(plan="big")
    ticket = quota.login().ticket
    ids = [quota.sent(ticket, state=DELIVERED if i % 2 else None).id for i in range(40)]
    before = quota.usage()
    quota.kill()
    q = quota.again('plan big { messages = 1000\n at_limit = allow }\n')
    quota.__dict__.update(q.__dict__)
    after = q.usage()
    for name in ("messages", "delivered", "bytes"):
        assert after[name] == before[name]
    for i in ids:  # as qmgr does after it
        q.charge(i)
        q.settle(i)
    usage = q.usage()
    assert usage["messages"] == usage["delivered"] == 40


def test_open_charges_are_asked_about(quota):
    quota.account()
    answer = quota.sent(quota.login().ticket, state=None)
    kept = quota.sent(quota.login().ticket, state=None)
    assert quota.usage()["delivered"] == 0
    # when they are some seconds old: whatever qmgr does not have any more is over, and with
    # nothing known to the contrary it was delivered
    asked = set()
    while {answer.id, kept.id} - asked:
        query = quota.qmgr.expect("ipc_charges_query", 60)
        asked |= {i.id.decode() for i in query.ids}
        gone = [dict(id=answer.id)] if answer.id in asked else []
        quota.qmgr.send("ipc_charges_gone", tag=query.tag, ids=gone)
    wait_until(lambda: quota.usage()["delivered"] == 1, 20, "the end of the charge")
    assert quota.usage()["messages"] == 2  # the other one is still open
    quota.settle(kept.id)
    assert quota.usage()["delivered"] == 2


def test_an_answer_about_charges_that_were_not_asked_about(quota):
    quota.account()
    answer = quota.sent(quota.login().ticket, state=None)
    quota.qmgr.send("ipc_charges_gone", tag=77, ids=[dict(id=answer.id)])
    with pytest.raises(Closed):
        while True:
            quota.qmgr.receive()
    assert quota.usage()["delivered"] == 0


def gone(quota, *ids, timeout=15):
    """Answers the next question about charges."""
    query = quota.qmgr.expect("ipc_charges_query", timeout, skip=("ipc_charged",))
    quota.qmgr.send("ipc_charges_gone", tag=query.tag, ids=[dict(id=i) for i in ids])
    return query


def table_bytes(quota):
    """The charges, and nothing that is only in the log."""
    quota.ask("snapshot")
    with open(os.path.join(quota.directory, "data", "accounts", "snapshot", "charge.db"), "rb") as f:
        return f.read()


def test_F41_a_snapshot_in_place_of_the_database_bills_no_bounces(quota):
    """What was open in it and has left the queue since is given back; what is still in the queue
    goes on, and later mail that is gone was delivered as ever."""
    quota.account(plan="big")
    ticket = quota.login().ticket
    bounced, waits = quota.sent(ticket, state=None), quota.sent(ticket, state=None, recipients=2)
    quota.ask("snapshot")
    quota.settle(bounced.id, REFUNDED)
    quota.stop(remove=False)
    accounts = os.path.join(quota.directory, "data", "accounts")
    shutil.rmtree(os.path.join(accounts, "db"))
    os.rename(os.path.join(accounts, "snapshot"), os.path.join(accounts, "db"))
    for again in range(2):  # the mark outlives a second start
        q = quota.again(PLANS)
        quota.__dict__.update(q.__dict__)
        assert quota.usage()["messages"] == 3
        assert quota.master.log().count("is a snapshot that was put in its place") == 1
        if again == 0:
            quota.stop(remove=False)
    quota.charge(waits.id, recipients=2, flags=0)  # as qmgr repeats it
    restored = int(time.time())  # charges are timed in seconds
    wait_until(lambda: time.time() >= restored + 1, 5, "the next second")
    lost = quota.sent(quota.login().ticket, state=None)
    query = gone(quota, bounced.id, timeout=30)
    assert {i.id.decode() for i in query.ids} >= {bounced.id, waits.id}
    wait_until(lambda: quota.usage()["messages"] == 3, 10, "the refund")
    assert "has left the queue after" in quota.master.log()
    quota.settle(waits.id, DELIVERED)
    gone(quota, lost.id, timeout=30)
    wait_until(lambda: quota.usage()["delivered"] == 3, 10, "the delivery")
    assert quota.usage()["refunded"] == 1 and quota.usage()["messages"] == 3


@pytest.mark.skipif(not faults.available(), reason="a build without fault points")
def test_F20_an_outage_of_hours_charges_nothing_twice(quota):
    """The power took the mark of a delivery with it and came back an hour later: the message
    is sent and charged again, and counts once; what is not in the spool is forgotten."""
    quota.account(plan="big")
    ticket = quota.login().ticket
    lost, over = quota.sent(ticket), quota.sent(ticket)
    quota.stop(remove=False)
    points = faults.Faults(quota.directory)
    points.shift("wall", 3600)
    q = quota.again('plan big { messages = 1000\n at_limit = allow }\n',
                    environment=points.environment)
    quota.__dict__.update(q.__dict__)
    # the first look at old charges is over when it asks
    query = q.qmgr.expect("ipc_charges_query", 15)
    q.charge(lost.id)
    q.qmgr.send("ipc_charges_gone", tag=query.tag, ids=[])
    gone_ids = gone(q)  # the message that is back is asked about until it is gone
    assert [i.id.decode() for i in gone_ids.ids] == [lost.id]
    q.settle(lost.id)
    assert q.usage()["messages"] == q.usage()["delivered"] == 2
    wait_until(lambda: over.id.encode() not in table_bytes(q), 15, "the end of the other charge")
    q.charge(lost.id)
    assert q.usage()["messages"] == 2, "it was charged a second time"


@pytest.mark.skipif(not faults.available(), reason="a build without fault points")
def test_F20_a_charge_too_young_for_the_first_look_is_asked_about_soon(quota):
    """Whose outcome a crash took is known within seconds, not minutes."""
    quota.account(plan="big")
    old = quota.sent(quota.login().ticket, state=None)
    quota.stop(remove=False)
    points = faults.Faults(quota.directory)
    points.shift("wall", 3600)
    q = quota.again('plan big { messages = 1000\n at_limit = allow }\n',
                    environment=points.environment)
    quota.__dict__.update(q.__dict__)
    young = q.sent(q.login().ticket, state=None)
    first = gone(q, old.id)
    assert [i.id.decode() for i in first.ids] == [old.id]
    asked = gone(q, young.id, timeout=30)
    assert [i.id.decode() for i in asked.ids] == [young.id]
    wait_until(lambda: q.usage()["delivered"] == 2, 10, "the end of both")


def test_a_new_account_of_an_old_name_begins_at_zero(quota):
    quota.account(plan="month")
    ticket = quota.login().ticket
    quota.sent(ticket)
    opened = quota.sent(ticket, state=None)
    quota.ask("user.delete", login="web")
    quota.ask("account.delete", account="acme")
    second = int(time.time())
    wait_until(lambda: time.time() >= second + 1, 3, "the next second")
    quota.account(plan="month")
    assert quota.usage()["messages"] == quota.usage(user="web")["messages"] == 0
    quota.settle(opened.id)  # the old one's
    quota.sent(quota.login().ticket)
    usage = quota.usage()
    assert (usage["messages"], usage["delivered"]) == (1, 1)


def test_sub_accounts_count_in_the_one_above(quota):
    quota.account(plan="month")
    quota.account("shop", "shop", domain=None, parent="acme")
    ticket = quota.login("shop").ticket
    quota.sent(ticket, recipients=7)
    assert quota.usage("shop")["messages"] == quota.usage("acme")["messages"] == 7
    refused = quota.reserve(ticket, recipients=4)
    assert refused.code == 550 and b"account acme" in refused.text


# ---- letters ---------------------------------------------------------------------------------


def letters(quota, count):
    out = []
    while len(out) < count:
        m = quota.qmgr.expect("ipc_account_notice", skip=("ipc_charged", "ipc_charges_query"))
        out.append(m)
    return out


def test_alerts_once_each_with_the_reset(quota):
    quota.account(plan="month", reference="owner@acme.test")
    ticket = quota.login().ticket
    for _ in range(7):
        quota.sent(ticket)
    for percent in (80, 90, 100):
        answer = quota.reserve(ticket)
        quota.charge(answer.id, wait=False)
        (letter,) = letters(quota, 1)
        text = letter.content.decode()
        assert letter.recipient == b"owner@acme.test"
        assert f"Subject: {percent}% of the volume of account acme is used\r\n" in text
        assert "Reset:     20" in text and "Europe/Berlin" in text
        quota.qmgr.send("ipc_account_noticed", tag=letter.tag)
    assert quota.qmgr.receive(1.5) is None, "an alert was sent again"


def test_F16_letter_survives_both_ends(quota):
    quota.account(plan="month", reference="owner@acme.test")
    ticket = quota.login().ticket
    for _ in range(8):
        quota.sent(ticket)
    (letter,) = letters(quota, 1)
    quota.kill()
    q = quota.again(MONTH)
    quota.__dict__.update(q.__dict__)
    (again,) = letters(q, 1)
    assert again.id == letter.id and again.content == letter.content
    q.qmgr.send("ipc_account_noticed", tag=again.tag)
    assert q.qmgr.receive(1.5) is None


def test_reports_every_ten_percent(quota):
    quota.account(plan="big", reference="owner@acme.test")
    ticket = quota.login().ticket
    for n, percent in ((100, 10), (50, None), (50, 20)):
        answer = quota.reserve(ticket, recipients=n)
        quota.charge(answer.id, recipients=n, wait=False)
        if percent:
            (letter,) = letters(quota, 1)
            assert f"Usage report of account acme: {percent}%" in letter.content.decode()
            quota.qmgr.send("ipc_account_noticed", tag=letter.tag)


# ---- the database ------------------------------------------------------------------------------


def test_export_and_import(quota):
    quota.account(plan="month", reference="owner@acme.test")
    quota.account("shop", "shop", domain="shop.test", parent="acme")
    quota.ask("grant.add", account="acme", amount="5GB", bought=True)
    quota.sent(quota.login().ticket)
    records, _ = quota.ask("export")
    assert {r["type"] for r in records} == {"account", "user", "domain", "grant", "usage",
                                            "rates", "charge"}
    other = Quota(MONTH)
    try:
        assert other.ask("import", records=records)[1]["records"] == len(records)
        assert other.login().status == OK
        assert other.usage()["messages"] == 1
        def sorted_records(records):
            return sorted(json.dumps(r, sort_keys=True) for r in records)
        assert sorted_records(other.ask("export")[0]) == sorted_records(records)
        with pytest.raises(Refused, match="record 2: account"):
            other.ask("import", records=[{"type": "account", "account": "new"},
                                         {"type": "user", "login": "x", "account": "none"}])
        assert "new" not in [a["account"] for a in other.ask("account.list")[0]]
    finally:
        other.stop()


def below(quota, name):
    return quota.one("account.show", account=name)["accounts"]


def test_an_import_moves_accounts_as_set_does(quota):
    for name, parent in (("top", ""), ("other", ""), ("kid", "top")):
        quota.ask("account.add", account=name, parent=parent)
    record = {"type": "account", "account": "kid"}
    quota.ask("import", records=[record | {"parent": "OTHER"}])
    assert (below(quota, "top"), below(quota, "other")) == ([], ["kid"])
    assert quota.one("account.show", account="kid")["parent"] == "other"
    # twice in one import: the last counts
    quota.ask("import", records=[record | {"parent": "top"}, record])
    assert (below(quota, "top"), below(quota, "other")) == ([], [])
    quota.ask("account.delete", account="top")
    quota.ask("import", records=[record | {"parent": "other"}])
    assert below(quota, "other") == ["kid"]


def test_an_import_makes_no_circle_and_no_deep_tree(quota):
    def tree(*pairs):
        return [{"type": "account", "account": name, "parent": parent} for name, parent in pairs]
    circle = tree(("a", ""), ("b", "a"), ("a", "b"))
    with pytest.raises(Refused, match="none can be below itself"):
        quota.ask("import", records=circle)
    five = tree(("a", ""), ("b", "a"), ("c", "b"), ("d", "c"), ("e", "d"))
    with pytest.raises(Refused, match="can be 4 deep"):
        quota.ask("import", records=five)
    quota.ask("import", records=five[:4])
    with pytest.raises(Refused, match="can be 4 deep"):
        quota.ask("import", records=five[4:])
    with pytest.raises(Refused, match="none can be below itself"):
        quota.ask("import", records=tree(("a", "d")))
    # what is below one that moves goes with it
    quota.ask("import", records=tree(("top", "")))
    for request, members in (("import", {"records": tree(("a", "top"))}),
                             ("account.set", {"account": "a", "parent": "top"})):
        with pytest.raises(Refused, match="can be 4 deep"):
            quota.ask(request, **members)
    # unless it moves at the same time
    quota.ask("import", records=tree(("a", "top"), ("b", "")))
    assert (below(quota, "top"), below(quota, "a"), below(quota, "b")) == (["a"], [], ["c"])


def test_an_import_takes_no_grant_that_cannot_be(quota):
    quota.ask("account.add", account="acme")
    good = {"type": "grant", "account": "acme", "grant": 4, "amount": 10, "used": 3,
            "unit": "messages", "from": 0, "until": int(time.time()) + 1000}
    for wrong in ({"unit": "bananas"}, {"until": "never"}, {"grant": -4}, {"grant": "4"},
                  {"amount": "10"}, {"used": 11}, {"from": -1}, {"until": 0}, {"bought": "yes"},
                  {"note": "x" * 201}, {"note": 5}):
        with pytest.raises(Refused, match="record 1: (grant|note): "):
            quota.ask("import", records=[good | wrong])
    for lacking in ("unit", "until", "amount", "grant"):
        with pytest.raises(Refused, match="record 1: grant: "):
            quota.ask("import", records=[{k: v for k, v in good.items() if k != lacking}])
    assert quota.ask("grant.list", account="acme")[0] == []
    quota.ask("import", records=[good | {"mystery": 1}])
    (grant,) = quota.ask("grant.list", account="acme")[0]
    assert (grant["used"], grant["unit"], "mystery" in grant) == (3, "messages", False)


def test_export_has_all_that_is_counted(quota):
    """Rates, what was told already, what is held, and charges that are still open come back as
    they were; a message that was charged before the export is not charged again after it."""
    plans = MONTH + 'plan slow { user_rate = {2/day}\n rate_action = queue }\n'
    quota.stop()
    q = Quota(plans)
    quota.__dict__.update(q.__dict__)
    q.account(plan="month", reference="owner@acme.test")
    q.account("late", "late", domain="late.test", plan="slow")
    ticket = q.login().ticket
    sent = [q.sent(ticket, state=None) for _ in range(8)]  # an alert of 80%
    (letter,) = letters(q, 1)
    q.qmgr.send("ipc_account_noticed", tag=letter.tag)
    for _ in range(3):
        q.sent(q.login("late").ticket, sender="a@late.test", authors=())
    records, _ = q.ask("export")
    other = Quota(plans)
    try:
        middle = len(records) // 2
        other.ask("import", records=records[:middle], more=True)
        assert other.qmgr.receive(1.5) is None, "charges may come before their accounts"
        other.ask("import", records=records[middle:])  # and now it awaits that they may
        assert sorted(json.dumps(r, sort_keys=True) for r in other.ask("export")[0]) == \
            sorted(json.dumps(r, sort_keys=True) for r in records)
        assert [r["type"] for r in records].count("held") == 1
        other.charge(sent[0].id)
        other.settle(sent[0].id)
        usage = other.usage()
        assert (usage["messages"], usage["delivered"]) == (8, 1)
        assert other.qmgr.receive(1.5) is None, "the alert was told again"
    finally:
        other.stop()


def test_import_in_service_is_what_counts(quota):
    """Usage in memory does not come back over the one that was imported."""
    quota.account(plan="big")
    ticket = quota.login().ticket
    quota.sent(ticket)
    records, _ = quota.ask("export")
    (usage,) = [r for r in records if r["type"] == "usage" and r["owner"] == "acme"]
    usage["counts"][0] = usage["counts"][2] = 500
    quota.ask("import", records=[usage], counts="replace")
    assert quota.usage()["messages"] == 500
    quota.sent(ticket)
    assert quota.usage()["messages"] == quota.usage()["delivered"] == 501


def test_audit_of_an_import_says_what_changed(quota):
    quota.account(plan="month")
    records, _ = quota.ask("export")
    quota.ask("import", records=[r | {"reference": "new@acme.test"} if r["type"] == "account" else r
                                 for r in records] +
              [{"type": "user", "login": f"user{i}", "account": "acme"} for i in range(300)])
    texts = [a["request"] for a in quota.ask("audit.list")[0] if a["what"] == "import"]
    changes = [c for t in texts for c in t.split("; ")]
    assert changes[0] == "account acme: reference"
    assert changes[1:] == [f"user user{i} (new)" for i in range(300)]
    assert all(len(t) <= 2000 for t in texts)


def test_F41_damaged_database_is_rebuilt_with_an_alert(quota):
    quota.account()
    ticket = quota.login().ticket
    quota.sent(ticket)
    quota.ask("snapshot")
    quota.sent(ticket)
    quota.kill()
    path = os.path.join(quota.directory, "data", "accounts", "db", "usage.db")
    with open(path, "r+b") as f:
        f.write(os.urandom(4096))
    q = quota.again()
    quota.__dict__.update(q.__dict__)
    assert q.usage()["delivered"] == 2 and q.login().status == OK
    assert "rebuilt from snapshot and log" in q.master.log()


def test_F41_a_damaged_page_is_met_once(quota):
    """Opening looks at the first page of a table only: the quota that meets another bad one
    ends, and the next one has rebuilt it."""
    quota.account()
    ticket = quota.login().ticket
    quota.ask("import", records=[{"type": "user", "login": f"user{i}", "account": "acme",
                                  "hash": "$y$j9T$KpGSsKAhZM5D00VXI9l6K0$" + "x" * 43}
                                 for i in range(2000)])
    quota.ask("snapshot")
    quota.sent(ticket)
    quota.ask("user.set", login="user1000", status="suspended")
    quota.stop(remove=False)
    path = os.path.join(quota.directory, "data", "accounts", "db", "user.db")
    with open(path, "r+b") as f:
        for at in range(2 * 4096, os.path.getsize(path), 4096):
            f.seek(at + 1000)
            f.write(os.urandom(16))
    first = quota.again()
    first.connect()
    first.connection.sendall(b'{"request":"user.show","login":"user1000"}\n')
    assert first.connection.recv(100) == b"", "it answered from a damaged page"
    first.master.process.wait(20)
    q = quota.again()
    quota.__dict__.update(q.__dict__)
    assert "rebuilt from snapshot and log" in q.master.log()
    assert len(q.ask("user.list")[0]) == 2001
    assert q.one("user.show", login="user1000")["status"] == "suspended"
    assert q.usage()["delivered"] == 1 and q.login().status == OK


@pytest.mark.skipif(not faults.available(), reason="a build without fault points")
def test_F18_F41_the_watchdog_lets_a_rebuild_end(tmp_path):
    """A copy that takes three times as long as the watchdog waits."""
    points = faults.Faults(str(tmp_path))
    with Postern(tmp_path, accounts_enable="yes", accounts_minfree="0", scram_iterations="4096",
                 environment=points.environment, service_watchdog_timeout="2s") as p:
        def answers():
            return p.ctl("account", "status", check=False).returncode == 0
        wait_until(answers, 20, "quota")
        for i in range(20):
            p.ctl("account", "add", f"account{i}")
        p.ctl("account", "snapshot")
        p.ctl("account", "add", "last")
        db = os.path.join(p.directory, "data", "accounts", "db")
        (pid,) = p.pids("quota")
        points.set("kv.copy.slow", count=20)
        with open(os.path.join(db, "account.db"), "r+b") as f:
            f.write(os.urandom(4096))
        os.kill(pid, 9)
        p.wait_log("rebuilt from snapshot and log", 60)
        wait_until(answers, 30, "quota")
        assert points.left() == 0, "the copy was not slow"
        accounts = p.ctl("account", "list")
        assert "account19" in accounts and "last" in accounts
        assert "does not respond" not in p.log()


def test_F41_full_disk_refuses_mail_and_keeps_the_rest(quota):
    quota.account()
    ticket = quota.login().ticket
    answer = quota.reserve(ticket)
    quota.stop(remove=False)
    q = quota.again(config={"accounts_minfree": str(1 << 40)})
    quota.__dict__.update(q.__dict__)
    assert q.mail(ticket).code == 452
    q.charge(answer.id)  # what was taken is still counted
    assert q.usage()["messages"] == 1


def test_two_processes_never_share_a_database(quota):
    with pytest.raises(Exception):
        quota.again()
    assert "in use by another process" in quota.master.log()


def test_logins_while_an_empty_database_waits(quota):
    """Who is unknown may be in the import that is still to come: 454 and 451, not 535 and 550."""
    quota.account()
    records, _ = quota.ask("export")
    other = Quota(MONTH)
    try:
        assert other.login().status == TEMPORARY
        assert b"database is empty" in other.login("nobody", "x").reason
        other.smtpd.send("ipc_auth_scram", tag=other.next_tag(), client=CLIENT, message="n,,n=web,r=x")
        assert other.smtpd.expect("ipc_auth_result").status == TEMPORARY
        other.smtpd.send("ipc_client_certificate", tag=other.next_tag(), client=CLIENT,
                         certificate=":".join(["AB"] * 32), key=":".join(["AB"] * 32))
        assert other.smtpd.expect("ipc_auth_result").status == TEMPORARY
        kinds = ("account", "user")
        other.ask("import", records=[r for r in records if r["type"] == "account"], more=True)
        assert other.login().status == TEMPORARY
        other.ask("import", records=[r for r in records if r["type"] in kinds])
        assert other.login().status == OK
        assert other.login("nobody", "x").status == FAILED
        assert other.login(password="x").status == FAILED
    finally:
        other.stop()


def test_an_import_may_swap_certificates(quota):
    """Of two users that are both in it; nobody is left without, nobody has two."""
    one, two, three = (":".join([b] * 32) for b in ("11", "22", "33"))
    quota.account(user="a")
    quota.ask("user.add", login="b", account="acme", password="x")
    quota.ask("user.add", login="c", account="acme", certificate=three)
    quota.ask("certificate.add", login="a", certificate=one)
    quota.ask("certificate.add", login="b", certificate=two)

    def user(login, certificate):
        return {"type": "user", "login": login, "account": "acme",
                "certificates": [{"fingerprint": certificate}]}
    quota.ask("import", records=[user("a", two), user("b", one)])
    assert {c["fingerprint"]: c["login"] for c in quota.ask("certificate.list")[0]} == \
        {one: "b", two: "a", three: "c"}
    quota.ask("import", records=[user("b", two), user("a", one)])
    assert {c["fingerprint"]: c["login"] for c in quota.ask("certificate.list")[0]} == \
        {one: "a", two: "b", three: "c"}
    with pytest.raises(Refused, match="is that of user c"):
        quota.ask("import", records=[user("a", three)])
    with pytest.raises(Refused, match="another user's in this import"):
        quota.ask("import", records=[user("a", two), user("b", two)])
    assert len(quota.ask("certificate.list")[0]) == 3
