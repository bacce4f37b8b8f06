"""Users who came with a hash: SCRAM keys are made when they first log in."""
import base64
import hashlib

import pytest
from accounts_rig import (CLIENT, DENIED, FAILED, NONE, OK, TEMPORARY, TOO_MANY, Quota, Refused, scram)

ELSEWHERE = [bytes([198, 51, n, 1]) for n in range(1, 60)]
NO_KEYS = b"the user has no SCRAM keys; they are made at its next login by PLAIN or LOGIN"


def pbkdf2(password="secret", iterations=1000):
    digest = hashlib.pbkdf2_hmac("sha256", password.encode(), b"salt", iterations)
    return f"pbkdf2_sha256${iterations}$salt${base64.b64encode(digest).decode()}"


HASHES = {
    "bcrypt": ("$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", "U*U"),
    "sha512": ("{SHA512-CRYPT}$6$rounds=10000$saltstringsaltst$OW1/O6BYHV6BcXZu8QVeXbDWra3Oeqh0sb"
               "HbbMCVNSnCM/UrjmM0Dp8vOuZeHBy/YTBmSK6H9qs/y3RnOaw5v.", "Hello world!"),
    "pbkdf2": (pbkdf2(), "secret"),
}


@pytest.fixture(name="quota")
def _quota():
    q = Quota()
    yield q
    q.stop()


def user(login="web", hash=None, **members):
    return {"type": "user", "login": login, "account": "acme", "hash": hash or pbkdf2(), **members}


def add(q, *records, **how):
    q.ask("import", records=[{"type": "account", "account": "acme", "any_sender": True}, *records],
          **how)


def has_keys(q, login="web"):
    return q.one("user.show", login=login)["scram"]


def challenge(q, login):
    """What SCRAM shows of a name: salt and iterations."""
    q.smtpd.send("ipc_auth_scram", tag=q.next_tag(), client=CLIENT, message=f"n,,n={login},r=x")
    shown = q.smtpd.expect("ipc_auth_challenge").message.decode()
    q.smtpd.send("ipc_auth_abort", tag=q.tag)
    return shown.split(",", 1)[1]


def restart(q, config):
    """The same database with another configuration, after all of it is durable."""
    q.ask("account.set", account="acme", note="x")
    q.kill()
    q.__dict__.update(q.again(config=config).__dict__)


def test_keys_of_every_kind_of_hash(quota):
    yescrypt = Quota()
    try:
        yescrypt.account()
        made = [r for r in yescrypt.ask("export")[0] if r["type"] == "user"]
    finally:
        yescrypt.stop()
    hashes = {**HASHES, "yescrypt": (made[0]["hash"], "secret")}
    add(quota, *[user(login, hash) for login, (hash, _) in hashes.items()])
    for login, (_, password) in hashes.items():
        before = challenge(quota, login)
        answer, _ = scram(quota, login, password)
        assert (answer.status, answer.reason) == (FAILED, NO_KEYS)
        assert quota.login(login, "wrong").status == FAILED and not has_keys(quota, login)
        assert quota.login(login, password).status == OK and has_keys(quota, login)
        answer, signature = scram(quota, login, password)
        assert answer.status == OK and answer.message == signature
        assert scram(quota, login, password + "x")[0].reason == b"wrong password"
        # from outside nothing has changed
        assert challenge(quota, login) == before
    restart(quota, {})
    for login, (_, password) in hashes.items():
        assert scram(quota, login, password)[0].status == OK, "the keys were not kept"


def test_audit_log_and_log_tell_it_as_what_it_is(quota):
    add(quota, user())
    assert quota.login().status == OK
    audit = quota.ask("audit.list")[0][-1]
    assert audit["what"] == "user web"
    assert audit["request"] == "SCRAM keys were made at a login with the right password"
    (exported,) = [r for r in quota.ask("export")[0] if r["type"] == "user"]
    key = exported["scram"].split("$")[2]
    assert exported["scram"].startswith("SCRAM-SHA-256$4096:")
    quota.master.wait_log("user web: SCRAM keys were made at a login")
    assert key not in quota.master.log() and "secret" not in quota.master.log()
    assert key not in str(quota.ask("audit.list")[0])


def test_sessions_and_remembered_passwords_stay(quota):
    restart_config = {"scram_iterations": "0"}
    add(quota, user(hash=pbkdf2(iterations=300000)))
    restart(quota, restart_config)
    before = quota.login()
    assert before.status == OK and not has_keys(quota)
    restart(quota, {"scram_iterations": "4096"})
    assert quota.login().status == OK and has_keys(quota)
    assert quota.mail(before.ticket).code == 0, "the session was ended"
    # remembered: while both threads are busy with hashes it is answered first
    busy = [quota.next_tag() for _ in range(4)]
    for tag in busy:
        quota.smtpd.send("ipc_auth_password", tag=tag, client=ELSEWHERE[0], user="web",
                         password="wrong", flags=1)
    assert quota.login().status == OK, "what was remembered of it is forgotten"
    for _ in busy:
        assert quota.smtpd.expect("ipc_auth_result").status == FAILED


def compare(q):
    """The right password is at the threads, which takes them a while."""
    q.smtpd.send("ipc_auth_password", tag=q.next_tag(), client=CLIENT, user="web",
                 password="secret", flags=1)
    q.smtpd.send("ipc_client_account", tag=q.next_tag(), client=CLIENT)
    assert q.smtpd.expect("ipc_auth_result").status == NONE  # so it was read


@pytest.mark.parametrize("change,kept", [({"note": "x"}, True), ({"hash": pbkdf2("other")}, False),
                                         ({"status": "suspended"}, False)])
def test_user_that_is_changed_while_its_password_is_compared(quota, change, kept):
    """Keys are those of what the record says now, or there are none."""
    add(quota, user(hash=pbkdf2(iterations=2000000)))
    compare(quota)
    quota.ask("user.set", login="web", **change)
    assert quota.smtpd.expect("ipc_auth_result").status == (OK if kept else TEMPORARY)
    shown = quota.one("user.show", login="web")
    assert shown["scram"] is kept and shown.get("note") == change.get("note")


def test_user_that_is_deleted_while_its_password_is_compared(quota):
    add(quota, user(hash=pbkdf2(iterations=2000000)))
    compare(quota)
    quota.ask("user.delete", login="web")
    assert quota.smtpd.expect("ipc_auth_result").status == DENIED
    with pytest.raises(Refused, match="no user web"):
        quota.one("user.show", login="web")


def test_no_keys_where_none_are_wanted(quota):
    add(quota, user())
    restart(quota, {"scram_iterations": "0"})
    assert quota.login().status == OK and not has_keys(quota)


def test_user_without_a_password(quota):
    """Who has a certificate only is not told to log in by PLAIN."""
    add(quota)
    quota.ask("user.add", login="machine", account="acme", certificate="ab" * 32)
    assert scram(quota, "machine", "x")[0].reason == b"the user has no password"


def attack(q, login, addresses):
    """What somebody who tries a name by SCRAM, then by PLAIN, from these addresses is told."""
    told = []
    for client in addresses:
        answer, _ = scram(q, login, "guess", client)
        told.append((answer.status, answer.delay, answer.message))
    for client in addresses[:3]:
        answer = q.login(login, "guess", client)
        told.append((answer.status, answer.delay, answer.message))
    answer, _ = scram(q, login, "guess", addresses[-1])
    return told + [(answer.status, answer.delay, answer.message)]


@pytest.mark.parametrize("addresses", [ELSEWHERE[:1] * 25, ELSEWHERE[:25], ELSEWHERE[:5] * 5],
                         ids=["one", "many", "some"])
def test_B16_scram_does_not_tell_who_has_keys(quota, addresses):
    """A name that nobody has, a user without keys, one with: the same answers, as slow, and locked
    after as many, whatever is tried afterwards."""
    told = []
    for login in ("nobody", "imported", "web"):
        add(quota, user("imported"))
        quota.ask("user.add", login="web", account="acme", password="secret")
        told.append(attack(quota, login, addresses))
        quota.stop()
        quota.__dict__.update(Quota().__dict__)
    assert told[0] == told[1] == told[2]
    assert [t[0] for t in told[0]].count(TOO_MANY) >= 5


def test_programs_that_try_scram_do_not_lock_the_user_out(quota):
    """Its name is locked for SCRAM; with PLAIN it logs in, and then by SCRAM as well."""
    add(quota, user())
    for client in ELSEWHERE[:25]:
        answer, _ = scram(quota, "web", "secret", client)
    assert (answer.status, answer.reason) == (TOO_MANY,
                                              b"too many failed logins of this user by SCRAM")
    assert quota.login().status == OK
    assert scram(quota, "web", "secret")[0].status == OK  # from an address that it is known at


def test_B16_guessed_passwords_lock_scram_too(quota):
    quota.account()
    for client in ELSEWHERE[:20]:
        assert quota.login(password="guess", client=client).status == FAILED
    assert quota.login(client=ELSEWHERE[30]).status == TOO_MANY
    assert scram(quota, "web", "secret", ELSEWHERE[30])[0].status == TOO_MANY


def test_hashes_that_are_imported_again_leave_the_keys(quota):
    """A list of another system's users may come twice: nobody is logged out for it."""
    add(quota, user())
    ticket = quota.login().ticket
    add(quota, user())
    assert has_keys(quota) and quota.mail(ticket).code == 0
    quota.ask("user.set", login="web", hash=pbkdf2())
    assert has_keys(quota) and quota.mail(ticket).code == 0
    add(quota, user(hash=pbkdf2("other")))
    assert not has_keys(quota) and quota.mail(ticket).code == 421
    assert scram(quota, "web", "secret")[0].reason == NO_KEYS


@pytest.mark.parametrize("name,status", [("web", OK), ("WEB", OK), ("\uff37eb", OK), ("w\u00e9b", DENIED),
                                         ("other", DENIED), ("we\0b", DENIED), ("x" * 255, DENIED)])
def test_authorization_identity(quota, name, status):
    """The same user, in whichever letters, is nobody else (RFC 4616, RFC 5802): in both ways; to
    ask for another one is no guess at a password and counts as none."""
    quota.account()
    for _ in range(25):
        quota.smtpd.send("ipc_auth_password", tag=quota.next_tag(), client=CLIENT, user="Web",
                         authorization=name, password="secret", flags=1)
        answer = quota.smtpd.expect("ipc_auth_result")
        assert answer.status == status
        if "\0" not in name:
            assert scram(quota, "web", "secret", header=f"n,a={name},")[0].status == status
    assert quota.login(password="wrong").delay == 250
