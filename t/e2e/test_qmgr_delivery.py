"""qmgr takes messages, hands them out, and does right by every result."""
import os
import time

import pytest

from ipc import Closed
from patience import stretched
from qmgr_peers import DEFERRED, FAILED, PERMANENT, SENT, SITE, TEMPORARY, Qmgr, checksum, new_id

NO_SUCH_USER = dict(status=FAILED, code=550, enhanced="5.1.1", text="5.1.1 no such user", stage=7)
GREYLISTED = dict(status=DEFERRED, code=450, enhanced="4.2.0", text="4.2.0 greylisted", stage=7)
REFUSED = dict(status=DEFERRED, local=1, stage=1, enhanced="4.4.1",
               text="connect to mx.test[127.0.0.1]:25: Connection refused")


@pytest.fixture
def q():
    q = Qmgr()
    yield q
    q.stop()


def test_delivered(q):
    id = q.commit()
    q.resolved()
    job = q.job()
    assert job.sender == b"s@client.test"
    assert [r.address for r in job.recipients] == [b"a@example.com"]
    assert job.prefix + job.body == b"Received: by test\r\nSubject: x\r\n\r\nHello\r\n"
    assert job.body_len == len(job.body) and job.fd == -1
    assert [t.host for t in job.targets] == [b"mx.test"]
    q.result(job)
    q.wait_log(rf"{id}: removed")
    assert q.count(rf"qmgr\[\d+\]: {id}: from=<s@client.test>, size=\d+, nrcpt=1 \(queue active\)") == 1
    assert q.count(rf"relay\[\d+\]: {id}: to=<a@example.com>, relay=mx.test\[127.0.0.1\]:25, "
                   r"delay=[\d.]+, delays=[\d.]+/[\d.]+/0/0, dsn=2.0.0, status=sent "
                   r"\(250 2.0.0 Ok\)$") == 1
    q.wait_files([])


def test_second_message_needs_no_question(q):
    q.commit()
    q.resolved()
    q.result(q.job())
    id = q.commit(["b@EXAMPLE.com"])
    q.result(q.job(), use_count=2)
    q.wait_log(rf"{id}: to=<b@EXAMPLE.com>, relay=mx.test\[127.0.0.1\]:25, conn_use=2, delay=")


def test_recipients_of_one_site_share_a_job(q):
    q.commit([f"u{i}@example.com" for i in range(60)])
    q.resolved()
    assert sorted([len(q.job().recipients), len(q.job().recipients)]) == [10, 50]


def test_domains_of_one_site_share_a_job(q):
    q.commit(["a@one.test"])
    q.resolved(site="shared")
    q.result(q.job())
    q.commit(["a@two.test"])
    q.resolved(site="shared")
    q.result(q.job())
    q.commit(["a@one.test", "b@two.test"])
    assert [r.address for r in q.job().recipients] == [b"a@one.test", b"b@two.test"]


def test_partial_failure(q):
    id = q.commit(["good@example.com", "bad@example.com", "late@example.com"])
    q.resolved()
    q.result(q.job(), outcomes=[
        dict(index=0, status=SENT, code=250, text="2.0.0 Ok"),
        dict(NO_SUCH_USER, index=1), dict(GREYLISTED, index=2)])
    ask = q.noticed()
    assert ask.sender == b"s@client.test" and ask.kind == 0
    assert [(r.address, r.action, r.status, r.diagnostic, r.remote, r.remote_mta)
            for r in ask.recipients] == [
                (b"bad@example.com", 0, b"5.1.1", b"550 5.1.1 no such user", 1, b"mx.test")]
    assert ask.content == b"Received: by test\r\nSubject: x\r\n\r\nHello\r\n"
    q.wait_log(rf"{id}: to=<bad@example.com>.*dsn=5.1.1, status=bounced "
               r"\(host mx.test\[127.0.0.1\] said: 550 5.1.1 no such user "
               r"\(in reply to RCPT TO command\)\)")
    q.wait_log(rf"bounce\[\d+\]: {id}: sender non-delivery notification: {id}F0")
    q.resolved()  # the notice to client.test
    notice = q.job()
    assert notice.id == (id + "F0").encode() and notice.sender == b""
    assert notice.body == b"From: <>\r\n\r\nsorry\r\n"
    q.result(notice)
    q.wait_log(rf"{id}F0: removed")
    q.wait_log(rf"{id}: to=<late@example.com>.*status=deferred \(host mx.test")
    q.wait_files([id])


def test_missing_outcome_is_deferred(q):
    id = q.commit(["a@example.com", "b@example.com"])
    q.resolved()
    q.result(q.job(), outcomes=[dict(index=0, status=SENT, code=250, text="Ok")])
    q.wait_log(rf"{id}: to=<b@example.com>.*dsn=4.3.0, status=deferred")
    q.wait_files([id])


def test_retried_after_the_backoff():
    q = Qmgr(dict(minimal_backoff_time="1"))
    id = q.commit()
    q.resolved()
    q.result(q.job(), outcomes=GREYLISTED)
    start = time.monotonic()
    q.result(q.job())
    assert 0.8 < time.monotonic() - start < stretched(4)
    q.wait_log(rf"{id}: removed")
    assert q.count(r"queue active") == 1
    q.stop()


def test_site_down_suspends_everything_for_it():
    q = Qmgr(dict(destination_suspend_time="1", initial_destination_concurrency="1"))
    ids = [q.commit() for _ in range(3)]
    q.resolved()
    q.result(q.job(), outcomes=REFUSED, scope=SITE, host="", address="", port=0)
    for id in ids[1:]:
        q.wait_log(rf"{id}: to=<a@example.com>, relay=none, .*dsn=4.4.1, status=deferred "
                   r"\(delivery temporarily suspended: connect to mx.test")
    late = q.commit()
    q.wait_log(rf"{late}: to=.*delivery temporarily suspended")
    # the suspension ends: one probe alone, then the others
    probe = q.job()
    assert q.relay.receive(0.5) is None
    q.result(probe)
    assert {q.job().id, q.job().id} | {probe.id} == {i.encode() for i in ids[1:] + [late]}
    q.stop()


def test_resolve_failures(q):
    id = q.commit(["a@nx.test"])
    q.resolved(status=PERMANENT, code=550, enhanced="5.1.2", text="Host not found", targets=[],
               site="")
    q.noticed()
    q.wait_log(rf"{id}: to=<a@nx.test>, relay=none, .*dsn=5.1.2, status=bounced \(Host not found\)")
    q.wait_log(rf"{id}: removed")
    id = q.commit(["a@slow.test"])
    asked = {q.resolve.expect("ipc_resolve_request"), q.resolve.expect("ipc_resolve_request")}
    for ask in asked:
        q.resolve.send("ipc_resolve_reply", tag=ask.tag, status=TEMPORARY, code=451,
                       enhanced="4.4.3", text="DNS timeout", ttl=60)
    q.wait_log(rf"{id}: to=<a@slow.test>, relay=none, .*dsn=4.4.3, status=deferred \(DNS timeout\)")


@pytest.mark.parametrize("transport,status", [(2, "bounced"), (3, "deferred"), (4, "sent")])
def test_transports_that_do_not_deliver(q, transport, status):
    id = q.commit()
    q.resolved(transport=transport, text="because", targets=[], site="")
    q.wait_log(rf"{id}: to=<a@example.com>, relay=none, .*status={status} \(because\)")


def test_address_routes(q):
    q.commit(["special@d.test", "normal@d.test"])
    q.resolved(scope=1, site="one")
    ask = q.resolved(scope=1, site="two")
    assert ask.recipient == b"normal@d.test"
    first, second = q.job(), q.job()
    assert first.targets[0].address != second.targets[0].address
    assert first.site != second.site
    special = first if first.recipients[0].address == b"special@d.test" else second
    q.commit(["special@d.test"])
    assert q.job().targets[0].address == special.targets[0].address


def test_F33_questions_survive_resolve(q):
    q.commit()
    q.resolve.expect("ipc_resolve_request")
    q.resolve.close()
    q.resolve = q.master.peer("resolve")
    q.resolved()
    q.job()


def test_F14_notice_requests_survive_bounce(q):
    q.commit()
    q.resolved()
    q.result(q.job(), outcomes=NO_SUCH_USER)
    q.bounce.expect("ipc_notice_request")
    q.bounce.close()
    q.bounce = q.master.peer("bounce")
    q.noticed()
    q.wait_log("non-delivery notification")


def test_F12_lost_before_the_dot_is_retried_at_once(q):
    id = q.commit()
    q.resolved()
    job = q.job()
    q.relay.close()  # it has not announced the end of data, of this job or any
    q.add_relay()
    again = q.job()
    assert again.id == id.encode() and again.job != job.job
    assert q.count("possible duplicate") == 0


def test_F12_F13_only_the_job_whose_end_was_announced_waits(q):
    id = q.commit()
    q.resolved()
    q.job()
    other = q.commit()
    q.relay.send("ipc_dot", job=q.job().job)
    q.relay.close()
    q.wait_log(rf"{other}: possible duplicate")
    q.add_relay()
    assert q.job().id == id.encode()
    assert q.relay.receive(0.3) is None
    assert q.count(rf"{id}: possible duplicate") == 0


def test_F13_lost_after_the_dot_waits(q):
    id = q.commit()
    q.resolved()
    q.relay.send("ipc_dot", job=q.job().job)
    q.relay.close()
    q.wait_log(rf"{id}: possible duplicate.*again in 60s")
    q.add_relay()
    assert q.relay.receive(0.5) is None
    q.wait_files([id])


def test_B92_index_out_of_range(q):
    id = q.commit()
    q.resolved()
    job = q.job()
    q.result(job, outcomes=[dict(index=7, status=SENT, code=250)])
    q.wait_log("RESULT for recipient 7, which it was not given")
    with pytest.raises(Closed):
        q.relay.receive()
    q.wait_files([id])


def test_B93_result_of_another_ones_job(q):
    id = q.commit()
    q.resolved()
    job = q.job()
    thief = q.add_relay(1)
    q.result(job, relay=thief)
    with pytest.raises(Closed):
        thief.receive()
    q.wait_log("RESULT of a job that it does not have")
    q.wait_files([id])
    q.result(job, relay=q.relays[0])
    q.wait_log(rf"{id}: removed")


def test_double_bounce_is_dropped(q):
    id = q.commit(sender="")
    q.resolved()
    q.result(q.job(), outcomes=NO_SUCH_USER)
    q.wait_log(rf"{id}: cannot be delivered or returned, and is dropped")
    q.wait_log(rf"{id}: removed")
    assert q.bounce.receive(0.2) is None


def test_double_bounce_goes_to_the_postmaster():
    q = Qmgr(dict(double_bounce_recipient="pm@example.com"))
    id = q.commit(sender="")
    q.resolved()
    q.result(q.job(), outcomes=NO_SUCH_USER)
    ask = q.noticed()
    assert ask.kind == 3 and ask.sender == b"pm@example.com"
    notice = q.job()
    assert [r.address for r in notice.recipients] == [b"pm@example.com"]
    assert notice.id == (id + "B0").encode()
    q.result(notice, outcomes=NO_SUCH_USER)
    q.wait_log(rf"{id}B0: cannot be delivered or returned")
    q.wait_log(rf"{id}B0: removed")
    q.stop()


@pytest.mark.parametrize("notify,outcome,dsn,expected", [
    (1, NO_SUCH_USER, 0, None),  # NEVER
    (2, NO_SUCH_USER, 0, None),  # SUCCESS only
    (4, NO_SUCH_USER, 0, 0), (2, None, 0, 2), (2, None, 1, None), (6, None, 0, 2), (0, None, 0, None)])
def test_dsn_notify(q, notify, outcome, dsn, expected):
    id = q.commit([dict(address="a@example.com", notify=notify)], envid="e1")
    q.resolved()
    q.result(q.job(), outcomes=outcome, dsn=dsn)
    if expected is None:
        q.wait_log(rf"{id}: removed")
        assert q.bounce.receive(0.1) is None
        return
    ask = q.noticed()
    assert ask.kind == expected and ask.envid == b"e1"
    assert ask.recipients[0].action == (3 if expected == 2 else 0)
    if expected == 2:
        assert ask.ret == 1 and ask.content.endswith(b"\r\n\r\n")
    q.wait_log(rf"{id}: removed")


def test_ret_hdrs(q):
    q.commit(ret=1)
    q.resolved()
    q.result(q.job(), outcomes=NO_SUCH_USER)
    assert q.noticed().content == b"Received: by test\r\nSubject: x\r\n\r\n"


def test_expiry_needs_an_attempt():
    q = Qmgr(dict(maximal_queue_lifetime="1"))
    id = q.commit(arrival=time.time_ns() // 1000 - 10 ** 9)
    q.resolved()
    q.result(q.job(), outcomes=GREYLISTED)
    q.wait_log(rf"{id}: from=<s@client.test>, status=expired, returned to sender")
    ask = q.noticed()
    assert ask.recipients[0].status == b"4.2.0" and ask.recipients[0].action == 0
    q.wait_log(rf"{id}: removed")
    q.stop()


def test_delay_warning():
    q = Qmgr(dict(delay_warning_time="1"))
    id = q.commit(arrival=time.time_ns() // 1000 - 10 ** 7)
    q.resolved()
    q.result(q.job(), outcomes=GREYLISTED)
    ask = q.noticed()
    assert ask.kind == 1 and ask.recipients[0].action == 1
    q.wait_log(rf"{id}: sender delay notification: {id}D0")
    assert id in q.files()
    q.stop()


def test_large_message(q):
    id = new_id()
    q.smtpd.send("ipc_large_open", tag=900, id=id)
    got = q.smtpd.expect("ipc_large_fd")
    body = b"0123456789abcdef\r\n" * 20000
    assert os.write(got.fd, body) == len(body)
    os.close(got.fd)
    q.commit(id=id, tag=900, body=b"", large_len=len(body), large_sum=checksum(body),
             answer=None)
    q.smtpd.expect("ipc_committed")
    q.resolved()
    job = q.job()
    assert job.fd >= 0 and job.body == b"" and job.body_len == len(body)
    assert os.pread(job.fd, job.body_len, job.body_at) == body
    assert job.prefix == b"Received: by test\r\n"
    with pytest.raises(OSError):
        os.write(job.fd, b"x")
    os.close(job.fd)
    q.result(job)
    q.wait_log(rf"{id}: removed")
    q.wait_files([])


def test_defer_transports():
    q = Qmgr(dict(defer_transports="smtp"))
    id = q.commit()
    q.resolved()
    q.wait_log(rf"{id}: to=<a@example.com>, relay=none, .*dsn=4.3.2, status=deferred \(deferred transport\)")
    assert q.relay.receive(0.2) is None
    lmtp = q.commit(["a@lmtp.test"])
    q.resolved(transport=1)
    assert q.job().id == lmtp.encode()
    q.stop()
