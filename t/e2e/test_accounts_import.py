"""postern account import: what it takes and what it leaves, and that nothing is lost on the way
from one database to another."""
import json

import pytest
from accounts_rig import CLIENT, DELIVERED, OK, REFUNDED, Quota, Refused, scram
from postern import wait_until
from qmgr_peers import new_id
from test_quota_service import gone
from test_scram_keys import HASHES, pbkdf2

PLANS = """plan small { messages = 5\n at_limit = allow\n overage = block:10 }
plan big { messages = 100000\n at_limit = allow }
"""
KEYS = ("SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbs"
        "T4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=")


@pytest.fixture(name="quota")
def _quota():
    q = Quota(PLANS)
    yield q
    q.stop()


def lines(q):
    """An export as it is, byte for byte."""
    q.connect()
    q.connection.sendall(b'{"request":"export"}\n')
    out = []
    while True:
        line = q.lines.readline()
        assert line
        if json.loads(line).get("done"):
            return out
        out.append(line)


def raw(q, request):
    """Its lines as they are, but for what an import cannot know."""
    q.connect()
    q.connection.sendall(json.dumps({"request": request}).encode() + b"\n")
    out = []
    while not json.loads(line := q.lines.readline()).get("done"):
        out.append(line)
    return out


def records(text):
    return [json.loads(line) for line in text]


def transfer(text, part=5000, **how):
    """Into a new database; its process."""
    q = Quota(PLANS)
    for at in range(0, len(text), part):
        q.ask("import", records=records(text[at:at + part]), more=at + part < len(text), **how)
    return q


def counted(q, account="acme"):
    """What must not go back, as the database has it."""
    return sorted(line for line in lines(q) if json.loads(line)["type"] in ("usage", "rates") or
                  json.loads(line)["type"] == "grant" and json.loads(line)["account"] == account)


def in_service(q):
    """An account with a package that is used in part, and a file of that moment."""
    q.account(plan="small", note="before")
    q.ask("grant.add", account="acme", amount=50)
    ticket = q.login().ticket
    for _ in range(7):
        q.sent(ticket)
    return ticket, lines(q)


# ---- into a database in service -----------------------------------------------------------


def test_old_export_does_not_roll_the_usage_back(quota):
    ticket, old = in_service(quota)
    quota.sent(ticket, recipients=4)
    quota.ask("account.set", account="acme", note="after")
    newer = counted(quota)
    _, last = quota.ask("import", records=records(old))
    assert counted(quota) == newer
    assert quota.usage()["messages"] == 11
    assert quota.usage()["grants_left"] == 44, "a part of the package is there again"
    # of the account and of its user; the definition is that of the file
    assert last["kept"]["usage"] == 2 and last["kept"]["rates"] == 2 and last["kept"]["grant"] == 1
    assert quota.one("account.show", account="acme")["note"] == "before"
    quota.sent(ticket)  # counting goes on where it was
    assert quota.usage()["messages"] == 12


def test_usage_is_replaced_if_that_is_what_is_wanted(quota):
    ticket, old = in_service(quota)
    quota.sent(ticket, recipients=4)
    _, last = quota.ask("import", records=records(old), counts="replace")
    assert "kept" not in last
    assert quota.usage()["messages"] == 7 and quota.usage()["grants_left"] == 48


def test_definitions_alone(quota):
    """A test machine gets the customers and none of their usage."""
    _, old = in_service(quota)
    q = transfer(old, counts="none")
    try:
        assert [u["login"] for u in q.ask("user.list")[0]] == ["web"]
        assert q.usage()["messages"] == 0
        types = {r["type"] for r in records(lines(q))}
        assert types == {"account", "user", "domain", "grant"}
    finally:
        q.stop()
    with pytest.raises(Refused, match="give keep, replace or none"):
        quota.ask("import", records=[], counts="yes")


def usage(owner, start, end, messages):
    return {"type": "usage", "owner": owner, "start": start, "end": end,
            "counts": [messages, 1000 * messages, messages, 1000 * messages, 0, 0, 0, 0]}


def test_what_the_database_does_not_have_is_taken(quota):
    """A customer that comes from another machine, and months that are over."""
    in_service(quota)
    running = quota.usage()
    month = 30 * 86400
    _, last = quota.ask("import", records=[
        {"type": "account", "account": "comer", "plan": "big"},
        usage("comer", running["start"], running["end"], 40),
        usage("acme", running["start"] - month, running["start"], 3)])
    assert "kept" not in last
    assert quota.usage("comer")["messages"] == 40
    assert [u["messages"] for u in quota.ask("usage.report", account="acme")[0]
            if u["owner"] == "acme"] == [3, 7]


def test_period_that_began_at_another_time_is_no_new_allowance(quota):
    """It would be the running one, being the later: what was used would be forgotten."""
    in_service(quota)
    running = quota.usage()
    for start, end in ((running["start"] + 5, running["end"]),
                       (running["start"] - 86400, running["start"] + 1),
                       (running["start"] + 1, running["end"] + 86400),
                       (running["start"] - 5, running["end"] + 5)):
        _, last = quota.ask("import", records=[usage("acme", start, end, 1)])
        assert last["kept"] == {"usage": 1}, (start, end)
    assert quota.usage() == running


def test_charges_of_another_queue_stay_away(quota):
    """In service those of our own queue are known; a new one takes them all."""
    ticket, _ = in_service(quota)
    quota.sent(ticket, state=None)
    file = lines(quota)
    (charge,) = [r for r in records(file) if r["type"] == "charge" and
                 r["id"] == quota_open(file)]
    other = Quota(PLANS)
    try:
        other.account(plan="small")
        _, last = other.ask("import", records=[charge])
        assert last["kept"] == {"charge": 1}
        assert not [r for r in records(lines(other)) if r["type"] == "charge"]
    finally:
        other.stop()
    fresh = transfer(file)
    try:
        assert charge in records(lines(fresh))
    finally:
        fresh.stop()


def quota_open(file):
    """The ID of the message that was charged last."""
    return [r["id"] for r in records(file) if r["type"] == "charge"][-1]


def test_list_that_is_imported_again_changes_nothing(quota):
    """One that an operator has written, which says little: the anniversary, say, stays."""
    listed = [{"type": "account", "account": "acme", "plan": "small"},
              {"type": "user", "login": "web", "account": "acme", "hash": pbkdf2()},
              {"type": "user", "login": "old", "account": "acme", "hash": pbkdf2(),
               "created": 1600000000}]
    quota.ask("import", records=listed)
    quota.ask("account.set", account="acme", began="2025-03-14")
    began = quota.one("account.show", account="acme")["began"]
    first = lines(quota)
    quota.ask("import", records=[{k: v for k, v in r.items() if k != "created"} for r in listed])
    assert quota.one("account.show", account="acme")["began"] == began
    assert lines(quota) == first


# ---- a thousand grants ---------------------------------------------------------------------


def grant(number, **members):
    return {"type": "grant", "account": "acme", "grant": number, "amount": 10, "used": 0,
            "unit": "messages", "from": 0, "until": 4000000000, **members}


def test_import_keeps_the_limit_of_grants(quota):
    quota.ask("account.add", account="acme")
    # those that are over do not count, as for 'grant add'
    quota.ask("import", records=[grant(n, over=True) for n in range(1, 301)])
    quota.ask("import", records=[grant(n) for n in range(1001, 1600)], more=True)
    quota.ask("import", records=[grant(n) for n in range(1600, 2000)], more=True)
    quota.ask("import", records=[grant(n) for n in range(1001, 2000)])  # the same again
    quota.ask("import", records=[grant(2000)])
    for more in ([grant(2001)], [grant(5000 + n) for n in range(2)]):
        with pytest.raises(Refused, match="record 1: grant: account acme has 1000 grants"):
            quota.ask("import", records=more)
    with pytest.raises(Refused, match="has 1000 grants, which is the limit"):
        quota.ask("grant.add", account="acme", amount=1)
    quota.ask("account.add", account="other")
    with pytest.raises(Refused, match="record 1001: grant: account other has 1000 grants"):
        quota.ask("import", records=[grant(n) | {"account": "other"} for n in range(1, 1002)])
    assert quota.ask("grant.list", account="other")[0] == []


def test_an_import_that_is_refused_gives_nothing_back(quota):
    """It has charges, and a record that is wrong: none of it holds, not even for a moment."""
    ticket, file = in_service(quota)
    mine = quota.sent(ticket, state=None)
    (charge,) = [r for r in records(lines(quota)) if r["type"] == "charge" and r["id"] == mine.id]
    other = {**charge, "id": new_id()}
    with pytest.raises(Refused, match="record 2: "):
        quota.ask("import", records=[other, {"type": "user", "login": "x", "account": "none"}],
                  counts="replace")
    before = quota.usage()
    while mine.id not in {i.id.decode() for i in gone(quota, mine.id, timeout=30).ids}:
        pass
    wait_until(lambda: quota.usage()["delivered"] == before["delivered"] + 1, 20, "the delivery")
    assert quota.usage()["messages"] == before["messages"]


def test_a_first_import_that_stops_says_so(quota):
    """For whoever imports it: the same file again needs other words."""
    _, file = in_service(quota)
    other = Quota(PLANS)
    try:
        _, last = other.ask("import", records=records(file[:5]), more=True)
        assert last["first"] is True
        with pytest.raises(Refused):
            other.ask("import", records=[{"type": "user", "login": "x", "account": "none"}])
        _, last = other.ask("import", records=records(file), counts="replace")
        assert "first" not in last and "kept" not in last
        assert lines(other) == file
    finally:
        other.stop()


# ---- there and back again ---------------------------------------------------------------------


def a_bit_of_everything(q):
    """Of all that an export can have."""
    now = 1700000000
    q.ask("import", more=True, records=[
        usage("top", now, now + 2592000, 30), usage("top", now + 2592000, now + 5184000, 31),
        usage("zz", now, now + 2592000, 30), usage("zz/pbkdf2", now, now + 2592000, 30),
        {**usage("aa", now, now + 2592000, 12), "terms": ["small", 5, 0, 10, False],
         "taken": [[1700000000000000, 3, False]], "alerts": 3, "reported": 80, "over": True}])
    q.ask("import", records=[
        {"type": "account", "account": "zz", "plan": "big", "reference": "zoe@zz.test"},
        {"type": "account", "account": "top", "parent": "zz", "any_sender": True, "class": "bulk",
         "class_most": "normal", "destination_connections": "5", "destination_rate": "600/hour"},
        {"type": "account", "account": "aa", "parent": "top", "plan": "small", "note": "\u00fc \"x\"",
         "status": "suspended", "ends": now + 9 * 10**8, "warned": 3, "created": now},
        *[{"type": "user", "login": login, "account": "zz", "hash": hash}
          for login, (hash, _) in HASHES.items()],
        {"type": "user", "login": "keys", "account": "aa", "scram": KEYS, "status": "suspended",
         "note": "a note", "class": "transactional",
         "certificates": [{"fingerprint": ":".join(["EF"] * 32), "added": now, "note": "old"}]},
        {"type": "grant", "account": "aa", "grant": 1700000000000000, "amount": 10, "used": 3,
         "unit": "messages", "from": now, "until": now + 10**9, "bought": True, "note": "x"},
        {"type": "grant", "account": "aa", "grant": 1700000000000002, "amount": 5, "used": 5,
         "unit": "bytes", "from": now, "until": now + 1, "over": True}])
    q.ask("user.add", login="web", account="top", password="secret")
    q.ask("user.add", login="yes", account="zz", password="secret", certificate="ab" * 32)
    q.ask("certificate.add", login="yes", certificate="cd" * 32, note="the other")
    q.ask("domain.add", account="zz", domain="zz.test")
    q.ask("domain.add", account="top", domain="News@Top.test", **{"class": "bulk"})
    assert q.login("pbkdf2").status == OK  # has SCRAM keys now, at the end of its record
    ticket = q.login("web").ticket
    for recipients, state in ((1, DELIVERED), (3, REFUNDED), (2, None)):
        q.sent(ticket, state=state, recipients=recipients)
    q.ask("account.set", account="zz", note="set last", status="suspended")


def test_round_trip_is_the_same_byte_for_byte(quota):
    a_bit_of_everything(quota)
    first = lines(quota)
    kinds = [json.loads(line)["type"] for line in first]
    assert set(kinds) == {"account", "user", "domain", "grant", "usage", "rates", "charge"}
    for part in (5000, 7):
        other = transfer(first, part)
        try:
            assert lines(other) == first
            # into itself: nothing is another one, and the audit log says nothing of records
            before = len(other.ask("audit.list")[0])
            _, last = other.ask("import", records=records(first))
            assert lines(other) == first and "kept" not in last
            for request in ("account.list", "user.list", "domain.list", "grant.list"):
                assert raw(other, request) == raw(quota, request), request
            assert [a["what"] for a in other.ask("audit.list")[0][before:]] == \
                [f"{len(first)} records"]
            assert other.login("sha512", "Hello world!", CLIENT).status != OK  # zz is suspended
            other.ask("account.set", account="zz", status="active")
            for login, (_, password) in HASHES.items():
                assert other.login(login, password).status == OK
            assert scram(other, "pbkdf2", "secret")[0].status == OK
            assert scram(other, "web", "secret")[0].status == OK
        finally:
            other.stop()


def test_members_in_any_order_are_the_same_record(quota):
    record = {"type": "account", "status": "active", "plan": "big", "note": "x", "began": 1700000000,
              "created": 1700000000, "account": "acme"}
    user = {"hash": pbkdf2(), "type": "user", "status": "active", "login": "web", "note": "n",
            "account": "acme"}
    quota.ask("import", records=[record, user])
    first = lines(quota)
    quota.ask("import", records=[dict(reversed(record.items())), dict(reversed(user.items()))])
    assert lines(quota) == first
    assert all(list(json.loads(line)) == sorted(json.loads(line)) for line in first)
