"""The bounce service alone: requests in, notices out, read as a mail program
reads them."""
import email
import email.policy
import signal

import pytest

import ipc

ARRIVAL = 1732220986_000000
ORIGINAL = b"Subject: hello\r\nFrom: a@src.test\r\n\r\nthe body\r\n"


@pytest.fixture
def bounce():
    m = ipc.FakeMaster("bounce", {"notice_from": "MAILER-DAEMON@relay.test",
                                  "notice_contact": "help@relay.test"})
    yield m
    m.stop()


def request(qmgr, recipients, **changes):
    values = dict(tag=9, kind=0, notice_id="4XyzAbCdeFz0001F0", id="4XyzAbCdeFz0001",
                  arrival=ARRIVAL, sender="a@src.test", original_sender="a@src.test", envid="E1",
                  ret=1, flags=0, size=len(ORIGINAL), recipients=recipients, content=ORIGINAL)
    values.update(changes)
    qmgr.send("ipc_notice_request", **values)
    notice = qmgr.expect("ipc_notice")
    assert notice.tag == values["tag"]
    assert all(len(line) <= 998 for line in notice.content.split(b"\r\n"))
    assert b"\n" not in notice.content.replace(b"\r\n", b"")
    return notice, email.message_from_bytes(notice.content, policy=email.policy.default)


def refused(address="b@dst.test", **changes):
    return dict(address=address, action=0, status="5.1.1", remote=1, remote_mta="mx.dst.test",
                diagnostic="550 5.1.1 no such user", last_attempt=ARRIVAL, **changes)


def status_fields(report):
    """The per-message fields and those of each recipient."""
    return report.get_payload()[1].get_payload()


def test_a_mail_program_reads_the_notice(bounce):
    notice, report = request(bounce.peer("qmgr"), [refused()])
    assert report.get_content_type() == "multipart/report"
    assert report.get_param("report-type") == "delivery-status"
    assert [p.get_content_type() for p in report.get_payload()] == \
        ["text/plain", "message/delivery-status", "text/rfc822-headers"]
    assert report["Auto-Submitted"] == "auto-replied"
    assert report["To"].addresses[0].addr_spec == "a@src.test"
    assert report["From"].addresses[0].addr_spec == "MAILER-DAEMON@relay.test"
    assert not report.defects and not any(p.defects for p in report.walk())
    about, recipient = status_fields(report)
    assert about["Reporting-MTA"] == "dns; relay.test"
    assert about["Original-Envelope-Id"] == "E1"
    assert recipient["Final-Recipient"] == "rfc822; b@dst.test"
    assert recipient["Status"] == "5.1.1"
    assert recipient["Diagnostic-Code"] == "smtp; 550 5.1.1 no such user"
    text = report.get_payload()[0].get_content()
    assert "There is no such mailbox" in text and "help@relay.test" in text
    assert notice.flags == 4


def test_full_return_is_byte_identical(bounce):
    _, report = request(bounce.peer("qmgr"), [refused()], ret=2)
    part = report.get_payload()[2]
    assert part.get_content_type() == "message/rfc822"
    assert bytes(part.get_payload()[0]).replace(b"\n", b"\r\n") == ORIGINAL or \
        ORIGINAL in report.as_bytes(policy=email.policy.SMTP)


def test_many_recipients_are_all_named(bounce):
    recipients = [dict(address=f"u{i}@dst.test", action=0, status="5.1.1", remote=1,
                       diagnostic="550 no") for i in range(1000)]
    _, report = request(bounce.peer("qmgr"), recipients)
    fields = status_fields(report)
    assert [f["Final-Recipient"] for f in fields[1:]] == \
        [f"rfc822; u{i}@dst.test" for i in range(1000)]


def test_international_report(bounce):
    notice, report = request(bounce.peer("qmgr"), [refused("jörg@dst.test")], flags=2,
                             sender="ä@src.test", original_sender="ä@src.test")
    assert report.get_payload()[1].get_content_type() == "message/global-delivery-status"
    assert "utf-8; jörg@dst.test".encode() in notice.content
    assert notice.flags & 2


def test_B89_bad_frame_closes_that_channel_only(bounce):
    bad, good = bounce.peer("qmgr"), bounce.peer("qmgr", slot=1)
    bad.send_raw(b"\x04\x00\x00\x00\x50\x00\x00\x00junk")
    with pytest.raises(ipc.Closed):
        while True:
            assert bad.receive(10) is not None
    request(good, [refused()])


def test_F14_killed_bounce_makes_the_same_notice_again():
    """Nothing is kept: another process answers the same request alike."""
    notices = []
    for _ in range(2):
        m = ipc.FakeMaster("bounce")
        notice, report = request(m.peer("qmgr"), [refused()])
        m.process.send_signal(signal.SIGKILL)
        m.process.wait()
        m.stop(expect=None)
        notices.append((report["Message-ID"], report.get_payload()[1].as_bytes()))
    assert notices[0] == notices[1]
