"""Who is next, how many at a time, and which relay process gets it."""
import json
import time

from patience import stretched
from qmgr_peers import DEFERRED, FAILED, SITE, Qmgr

ONE = dict(initial_destination_concurrency="1", default_destination_concurrency_limit="1")
NORMAL, TRANSACTIONAL, BULK = 0, 1, 2


def in_order(q, count):
    """Senders in the order in which qmgr hands their messages out."""
    order = []
    for _ in range(count):
        job = q.job()
        order.append(job.sender.decode())
        q.result(job)
    return order


def test_accounts_take_turns_at_a_busy_site():
    q = Qmgr(ONE)
    q.commit(sender="first")
    q.resolved()
    first = q.job()
    for i in range(50):
        q.commit(sender="big", account="big")
    for i in range(3):
        q.commit(sender="small", account="small")
    q.result(first)
    order = in_order(q, 53)
    assert [i for i, s in enumerate(order) if s == "small"][-1] <= 6
    q.stop()


def test_a_password_reset_does_not_wait_for_the_same_customers_newsletter():
    q = Qmgr(ONE)
    q.commit(sender="first")
    q.resolved()
    first = q.job()
    for i in range(50):
        q.commit(sender="bulk", account="a", mail_class=BULK)
    q.commit(sender="reset", account="a", mail_class=TRANSACTIONAL)
    q.result(first)
    assert "reset" in in_order(q, 3)
    # and bulk mail is not starved by transactional mail either
    for i in range(60):
        q.commit(sender="reset", account="a", mail_class=TRANSACTIONAL)
    order = in_order(q, 40)
    assert 1 <= order.count("bulk") <= 12
    q.stop()


def test_accounts_take_turns_for_relay_room():
    q = Qmgr(relays=0)
    relay = q.add_relay(jobs=1)
    q.commit(["x@first.test"], sender="first")
    q.resolved()
    first = q.job()
    for i in range(60):
        q.commit([f"x@site{i % 6}.test"], sender="big", account="big")
    for i in range(6):
        q.resolved()
    q.commit(["x@other.test"], sender="small", account="small")
    q.resolved()
    q.result(first)
    assert "small" in in_order(q, 20)
    assert relay.receive(0.1) is not None  # one job at a time, and the next one came
    q.stop()


def test_concurrency_grows_with_success():
    q = Qmgr(dict(initial_destination_concurrency="2", default_destination_concurrency_limit="4"))
    for i in range(10):
        q.commit()
    q.resolved()
    jobs = [q.job(), q.job()]
    assert q.relay.receive(0.2) is None
    q.result(jobs.pop())
    jobs += [q.job(), q.job()]
    assert q.relay.receive(0.2) is None
    q.result(jobs.pop())
    jobs += [q.job(), q.job()]
    q.result(jobs.pop())
    jobs += [q.job()]  # four under way: the limit
    assert q.relay.receive(0.2) is None
    q.stop()


def test_rate_delay():
    q = Qmgr(dict(destination_rate_delay="1"))
    for i in range(3):
        q.commit()
    q.resolved()
    start = time.monotonic()
    for i in range(3):
        q.result(q.job())
    assert 1.9 < time.monotonic() - start < stretched(4)
    q.stop()


def test_a_slow_site_does_not_hold_up_others():
    q = Qmgr(ONE)
    for i in range(5):
        q.commit(["a@slow.test"])
    q.resolved()
    q.job()
    q.commit(["a@fast.test"])
    q.resolved()
    assert q.job().recipients[0].address == b"a@fast.test"
    q.stop()


def test_many_messages_for_one_site_leave_memory_to_others():
    """More messages for a site that hangs than fit into memory: another site's mail,
    another account's and a more urgent one still go at once; and all are sent in
    the end, when the site works again."""
    q = Qmgr(dict(qmgr_message_active_limit="20", initial_destination_concurrency="1",
                  default_destination_concurrency_limit="1"))
    stuck = [q.commit(["u@slow.test"], account="big", mail_class=BULK) for _ in range(60)]
    q.resolved()
    hanging = q.job()
    for i in range(30):
        id = q.commit(["a@quick.test"])
        if i == 0:
            q.resolved()
        job = q.job(timeout=5)
        assert job.id == id.encode()
        q.result(job)
    urgent = q.commit(["u@slow.test"], account="big", mail_class=TRANSACTIONAL)
    other = q.commit(["u@slow.test"], account="small")
    got = []
    job = hanging
    while len(got) < len(stuck) + 2:
        got.append(job.id.decode())
        q.result(job)
        if len(got) < len(stuck) + 2:
            job = q.job(timeout=5)
    assert sorted(got) == sorted(stuck + [urgent, other])
    assert got.index(urgent) < 5 and got.index(other) < 5
    q.wait_files([])
    q.stop()


def test_parked_recipients_of_a_message_in_memory_are_called_when_there_is_room():
    """Its other recipient is under way all the time, so that its envelope stays."""
    q = Qmgr(dict(qmgr_message_active_limit="20", initial_destination_concurrency="1",
                  default_destination_concurrency_limit="1"))
    stuck = [q.commit(["u@slow.test"], account="big") for _ in range(40)]
    q.resolved()
    slow = q.job()
    mixed = q.commit(["u@slow.test", "h@hang.test"], account="big")
    q.resolved()
    hanging = q.job()
    assert (hanging.id, hanging.recipients[0].address) == (mixed.encode(), b"h@hang.test")
    got, job = [], slow
    for _ in range(len(stuck) + 1):
        got.append(job.id.decode())
        q.result(job)
        if len(got) <= len(stuck):
            job = q.job(timeout=5)
    assert sorted(got) == sorted([*stuck, mixed])
    q.result(hanging)
    q.wait_files([])
    q.stop()


def test_sites_stay_with_the_relay_that_has_their_sessions():
    q = Qmgr(relays=2)
    seen = set()
    for i in range(10):
        q.commit()
        if i == 0:
            q.resolved()
        got = None
        while got is None:
            for relay in q.relays:
                got = relay.receive(0.05)
                if got:
                    q.result(got, relay=relay)
                    seen.add(relay)
                    break
    assert len(seen) == 1
    q.stop()


def test_no_more_than_a_relay_takes():
    q = Qmgr(relays=0)
    relay = q.add_relay(jobs=3)
    for i in range(10):
        q.commit([f"a@d{i}.test"])
        q.resolved()
    jobs = [q.job() for _ in range(3)]
    assert relay.receive(0.2) is None
    relay.send("ipc_relay_ready", jobs=0)  # it drains
    q.result(jobs[0])
    assert relay.receive(0.2) is None
    other = q.add_relay(1)
    assert len({q.job(other).id for _ in range(7)}) == 7
    q.result(jobs[1], relay=relay)
    q.stop()


def test_held_mail_is_not_sent():
    q = Qmgr()
    id = q.commit(flags=32)
    assert q.resolve.receive(0.2) is None
    assert q.files() == [id]
    q.stop()


def test_notices_of_one_message_are_one():
    q = Qmgr(ONE)
    id = q.commit([f"u@d{i}.test" for i in range(8)])
    for i in range(8):
        q.resolved()
    for i in range(8):
        q.result(q.job(), outcomes=dict(status=FAILED, code=550, text="5.7.1 no", stage=7))
    ask = q.noticed()
    assert len(ask.recipients) == 8
    q.wait_log(rf"{id}: removed")
    q.stop()


def test_more_failures_than_fit_into_one_notice():
    q = Qmgr(dict(destination_recipient_limit="1000"))
    count = 2000
    id = q.commit([f"user{i:04}@example.com" for i in range(count)])
    q.resolved()
    done = 0
    while done < count:
        job = q.job()
        done += len(job.recipients)
        q.result(job, outcomes=dict(status=FAILED, code=550, text="5.7.1 " + "no " * 20, stage=7))
    told, ids = [], set()
    while len(told) < count:
        ask = q.noticed()
        told += [r.address for r in ask.recipients]
        ids.add(ask.notice_id)
    assert sorted(told) == [b"user%04d@example.com" % i for i in range(count)]
    assert 2 < len(ids) <= 51
    q.wait_log(rf"{id}: removed")
    q.stop()


def test_event_log():
    q = Qmgr(dict(event_log_file="events"))
    id = q.commit(["a@example.com", "b@example.com"], account="acct", mail_class=BULK)
    q.resolved()
    job = q.job()
    q.result(job, outcomes=[dict(index=0, status=0, code=250, text="2.0.0 Ok"),
                            dict(index=1, status=FAILED, code=550, text='5.1.1 "no" \xff', stage=7)],
             tls="TLSv1.3 with cipher X (256/256 bits)", connect_us=1500000, transfer_us=20000)
    q.noticed()
    q.wait_log(rf"{id}: removed")
    with open(q.master.events_path, encoding="utf-8") as f:
        events = [json.loads(line) for line in f]
    mine = {e["event"]: e for e in events if e["id"] == id}
    assert set(mine) == {"accepted", "delivered", "bounced", "notice", "removed"}
    assert mine["accepted"]["to"] == ["a@example.com", "b@example.com"]
    assert mine["accepted"]["class"] == "bulk" and mine["accepted"]["account"] == "acct"
    assert mine["accepted"]["message_id"] == "<m@client.test>"
    assert mine["delivered"]["connect_delay"] == 1.5
    assert mine["delivered"]["tls"] == "TLSv1.3 with cipher X (256/256 bits)"
    assert mine["delivered"]["site"] == "mx.example.com"
    assert mine["bounced"]["code"] == 550 and mine["bounced"]["to"] == "b@example.com"
    assert mine["notice"]["notice"] == id + "F0"
    q.wait_log(rf"{id}: to=<a@example.com>.*, delays=[\d.]+/[\d.]+/1.5/0.02, ")
    q.stop()


def test_flush_of_nothing_but_time():
    """A recipient that waits is not tried before its time when others of its
    message are."""
    q = Qmgr(dict(minimal_backoff_time="2", maximal_backoff_time="8"))
    q.commit(["a@one.test", "a@two.test"])
    q.resolved()
    q.resolved()
    jobs = [q.job(), q.job()]
    later = dict(status=DEFERRED, code=450, text="4.2.0 later", stage=7)
    q.result(jobs[0], outcomes=later)
    again = q.job()     # while the other recipient's first attempt is under way
    assert [r.address for r in again.recipients] == [jobs[0].recipients[0].address]
    q.result(again, outcomes=later)
    q.result(jobs[1], outcomes=later)
    start = time.monotonic()
    # one has failed once and waits two seconds, the other twice and waits four; ten percent
    # either way, and whole seconds, leave at least one between them
    for address, wait in ((jobs[1].recipients[0].address, 1.7), (again.recipients[0].address, 3.5)):
        job = q.job()
        assert [r.address for r in job.recipients] == [address]
        assert time.monotonic() - start >= wait
    q.stop()
