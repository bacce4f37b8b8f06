"""The main job: what is accepted is delivered, byte for byte, or bounced."""
import email
import os
import re
import smtplib
import subprocess

import pytest

from postern import Postern, free_port, wait_until
from sink import Sink

BODIES = {
    "plain": b"Subject: plain\r\n\r\nhello\r\n",
    "dots": b"Subject: dots\r\n\r\n.\r\n..\r\n.a\r\nb.\r\n...\r\n",
    "empty line": b"\r\n",
    "no separator": b"Subject: only a header\r\n",
    "no header": b"\r\njust a body\r\n",
    "long line": b"Subject: long\r\n\r\n" + b"x" * 20000 + b"\r\n",
    "8-bit": b"Subject: 8\r\n\r\n" + bytes(range(0x80, 0x100)) + b"\r\n",
    "trailing blank lines": b"Subject: t\r\n\r\na\r\n\r\n\r\n",
}


def after_received(content):
    """Content without the Received header that Postern put before it."""
    m = re.match(rb"Received: .*\r\n(?:[ \t].*\r\n)*", content)
    assert m, content[:200]
    return content[m.end():]


@pytest.fixture
def relay(place):
    with Sink() as sink, Postern(place, relayhost=f"[127.0.0.1]:{sink.port}") as p:
        yield p, sink


@pytest.mark.parametrize("name", BODIES)
def test_body_arrives_unchanged(relay, name):
    p, sink = relay
    options = ["BODY=8BITMIME"] if name == "8-bit" else []
    p.send("a@src.test", ["b@dst.test"], BODIES[name], options)
    assert after_received(sink.wait(1)[0].content) == BODIES[name]


def test_large_message_arrives_unchanged(relay):
    p, sink = relay
    body = b"Subject: large\r\n\r\n" + b"".join(
        b".%d line that begins with a dot\r\n" % i for i in range(300000))
    p.send("a@src.test", ["b@dst.test"], body)
    assert after_received(sink.wait(1)[0].content) == body
    p.wait_log("removed$")
    wait_until(lambda: not p.spool_files("new"), what="the end of the file")


def test_log_lines_tell_the_whole_way(relay):
    p, sink = relay
    queue_id = p.send("a@src.test", ["b@dst.test"], b"Message-ID: <m1@src.test>\r\n\r\nx\r\n")
    sink.wait(1)
    p.wait_log(f"{queue_id}: removed$")
    log = p.log()
    for pattern in (
            rf"postern/smtpd\[\d+\]: {queue_id}: client=unknown\[127.0.0.1\]",
            rf"{queue_id}: message-id=<m1@src.test>",
            rf"postern/qmgr\[\d+\]: {queue_id}: from=<a@src.test>, size=\d+, nrcpt=1 \(queue active\)",
            rf"postern/relay\[\d+\]: {queue_id}: to=<b@dst.test>, relay=127.0.0.1\[127.0.0.1\]:{sink.port},"
            r" delay=[\d.]+, delays=[\d./]+, dsn=2.0.0, status=sent \(250 2.0.0 Ok\)"):
        assert re.search(pattern, log), (pattern, log)
    kinds = [e["event"] for e in p.events() if e.get("id") == queue_id]
    assert kinds[0] == "accepted" and "delivered" in kinds and kinds[-1] == "removed", kinds


def test_several_recipients_share_one_transaction(relay):
    p, sink = relay
    to = [f"r{i}@dst.test" for i in range(20)]
    p.send("a@src.test", to, BODIES["plain"])
    assert sorted(sink.wait(1)[0].recipients) == sorted(to)
    assert len(sink.messages) == 1


def test_refused_recipient_bounces_and_the_others_are_delivered(relay):
    p, sink = relay
    sink.replies = {"nobody@dst.test": "550 5.1.1 <nobody@dst.test>: no such user"}
    queue_id = p.send("a@src.test", ["good@dst.test", "nobody@dst.test"], BODIES["plain"])
    messages = sink.wait(2)
    notice = next(m for m in messages if m.sender in ("", "<>", None))
    assert notice.recipients == ["a@src.test"]
    report = email.message_from_bytes(notice.content)
    assert report.get_content_type() == "multipart/report"
    parts = report.get_payload()
    assert [x.get_content_type() for x in parts][:2] == ["text/plain", "message/delivery-status"]
    status = parts[1].as_string()
    assert "nobody@dst.test" in status and "Action: failed" in status and "5.1.1" in status
    assert "good@dst.test" not in status
    p.wait_log(f"{queue_id}: sender non-delivery notification: ")
    p.wait_log(f"{queue_id}: removed$")


def test_notice_is_never_answered_with_a_notice(relay):
    p, sink = relay
    sink.replies = lambda address: "550 5.1.1 no" if address.startswith("no") else None
    p.send("nosender@src.test", ["nobody@dst.test"], BODIES["plain"])
    # first the message bounces, then the notice cannot be delivered either
    wait_until(lambda: p.log().count(": removed") >= 2, what="two removals")
    assert sink.messages == [] and p.spool_files("new") == []


def test_temporary_failure_is_tried_again(place):
    with Sink() as sink, Postern(place, relayhost=f"[127.0.0.1]:{sink.port}",
                                 minimal_backoff_time="1s", maximal_backoff_time="1s") as p:
        sink.replies = {"late@dst.test": "450 4.2.1 later"}
        queue_id = p.send("a@src.test", ["late@dst.test"], BODIES["plain"])
        p.wait_log(f"{queue_id}: to=<late@dst.test>.*dsn=4.2.1, status=deferred .*450 4.2.1 later")
        sink.replies = {}
        sink.wait(1)
        p.wait_log(f"{queue_id}: removed$")


def test_expired_message_is_returned(place):
    with Sink() as back, Postern(
            place, relayhost=f"[127.0.0.1]:{free_port()}", minimal_backoff_time="1s",
            maximal_backoff_time="1s", destination_suspend_time="1s",
            maximal_queue_lifetime="2s", transport_maps=f"inline:{{ src.test=smtp:[127.0.0.1]:{back.port} }}") as p:
        queue_id = p.send("a@src.test", ["b@dst.test"], BODIES["plain"])
        notice = back.wait(1)[0]
        assert notice.recipients == ["a@src.test"]
        p.wait_log(f"{queue_id}: from=<a@src.test>, status=expired, returned to sender")


def test_queue_survives_a_stop(place):
    port = free_port()
    p = Postern(place, relayhost=f"[127.0.0.1]:{port}", minimal_backoff_time="1s",
                maximal_backoff_time="1s", destination_suspend_time="1s")
    with p:
        ids = {p.send("a@src.test", [f"r{i}@dst.test"], BODIES["dots"]) for i in range(5)}
        wait_until(lambda: p.log().count("status=deferred") >= 5, what="five deferrals")
    with Sink(port) as sink:
        p.start()
        with p:
            messages = sink.wait(5)
            assert {after_received(m.content) for m in messages} == {BODIES["dots"]}
            for queue_id in ids:
                p.wait_log(f"{queue_id}: removed$")


def test_swaks_and_smtp_source_submit_and_smtp_sink_receives(place):
    port = free_port()
    user = ["-u", "nobody"] if os.getuid() == 0 else []
    sink = subprocess.Popen(["smtp-sink", "-c", *user, f"127.0.0.1:{port}", "100"],
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with Postern(place, relayhost=f"[127.0.0.1]:{port}", minimal_backoff_time="1s") as p:
            subprocess.run(["swaks", "--server", f"127.0.0.1:{p.port}", "--from", "a@src.test",
                            "--to", "b@dst.test", "--hide-all"], check=True, timeout=30)
            subprocess.run(["smtp-source", "-s", "5", "-m", "200", "-l", "4096", "-d", "-f",
                            "a@src.test", "-t", "b@dst.test", f"127.0.0.1:{p.port}"],
                           check=True, timeout=60)
            wait_until(lambda: p.log().count("status=sent") >= 201, 60, "201 deliveries")
    finally:
        sink.terminate()
        sink.wait()


def test_relaying_is_denied_to_strangers(place):
    with Sink() as sink, Postern(place, relayhost=f"[127.0.0.1]:{sink.port}",
                                 mynetworks="192.0.2.0/24") as p:
        with p.client() as c:
            c.ehlo()
            c.mail("a@src.test")
            code, text = c.rcpt("b@dst.test")
            assert code == 554 and b"Relay access denied" in text
        p.wait_log(r"NOQUEUE: reject: RCPT from unknown\[127.0.0.1\]: 554 5.7.1 "
                   r"<b@dst.test>: Relay access denied; from=<a@src.test> to=<b@dst.test> "
                   r"proto=ESMTP helo=<client.test>")


def test_dsn_success_notice_when_asked(relay):
    p, sink = relay
    p.send("a@src.test", ["b@dst.test"], BODIES["plain"], rcpt_options=["NOTIFY=SUCCESS"])
    messages = sink.wait(2)
    notice = next(m for m in messages if m.recipients == ["a@src.test"])
    report = email.message_from_bytes(notice.content)
    assert re.search(r"Action: (relayed|delivered)", report.get_payload()[1].as_string())


def test_notify_never_is_silent(relay):
    p, sink = relay
    sink.replies = {"nobody@dst.test": "550 5.1.1 no"}
    queue_id = p.send("a@src.test", ["nobody@dst.test"], BODIES["plain"],
                      rcpt_options=["NOTIFY=NEVER"])
    p.wait_log(f"{queue_id}: removed$")
    assert sink.messages == []


def test_client_can_send_many_messages_on_one_connection(relay):
    p, sink = relay
    with p.client() as c:
        for i in range(50):
            c.sendmail("a@src.test", [f"r{i}@dst.test"], BODIES["plain"])
    assert {m.recipients[0] for m in sink.wait(50)} == {f"r{i}@dst.test" for i in range(50)}


def test_smtplib_error_after_limit(place):
    with Sink() as sink, Postern(place, relayhost=f"[127.0.0.1]:{sink.port}",
                                 message_size_limit="10000") as p:
        with p.client() as c, pytest.raises(smtplib.SMTPResponseException) as e:
            c.sendmail("a@src.test", ["b@dst.test"], b"x" * 20000)
        assert e.value.smtp_code == 552
