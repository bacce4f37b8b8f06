"""What relay services sell, each row through a whole relay: a client's session at one end,
what arrives at the other, letters to the owner included. quota's own corners are in
test_quota_plans.py, logins in test_auth.py, the arithmetic in test_plan.c and test_plan_books.c."""
import calendar
import datetime
import email
import email.policy
import json
import os
import re
import smtplib
import time
import zoneinfo

import faults as fault_points
import pytest
from faults import Faults
from postern import Postern, wait_until
from sink import Sink

PLANS = """
plan burst { messages = 3
 at_limit = surcharge
 overage = block:1000 }
plan volume { bytes = 100KB
 byte_minimum = 10KB
 at_limit = block }
plan tens { bytes = 200KB
 byte_minimum = 10KB
 at_limit = block }
plan small { size = 3000 }
plan roomy { recipients = 5
 size = 100KB }
plan hard { messages = 3
 at_limit = block
 period_report = yes }
plan credit { bytes = 1GB
 at_limit = block
 credit_unit = 500MB
 credit_minimum = 2GB
 credit_until = year }
plan mailbox { account_rate = {2/day}
 rate_action = defer
 recipients = 5
 size = 100KB }
plan single { recipients = 1
 account_rate = {1/minute}
 rate_action = queue }
plan ending { messages = 100
 end_warnings = {30, 7, 1} }
plan guarded { spike_factor = 10
 spike_minimum = 5
 spike_action = hold }
plan more { messages = 10
 at_limit = block }
plan own_day { messages = 1
 period = month
 anchor = anniversary
 zone = "America/New_York"
 at_limit = block }
plan dedicated { source = "high" }
plan steps { messages = 10
 at_limit = block
 alerts = {}
 report_every = 10 }
"""
DAY = 86400


class Relay(Postern):
    """A relay whose clients belong to the account acme."""

    def __init__(self, directory, plan, sink, *more, **config):
        self.faults, self.sink = Faults(str(directory)), sink
        with open(os.path.join(str(directory), "plans.conf"), "w", encoding="utf-8") as f:
            f.write(PLANS)
        super().__init__(directory, environment=self.faults.environment, accounts_enable="yes",
                         plans_file="plans.conf", accounts_minfree="0", mynetworks_account="acme",
                         relayhost=f"[127.0.0.1]:{sink.port}", **config)
        wait_until(lambda: self.ctl("account", "status", check=False).returncode == 0, 20, "quota")
        self.wait_log("plans read from")
        self.ctl("account", "add", "acme", "--plan", plan, "--reference", "owner@acme.test", *more)
        self.ctl("domain", "add", "acme", "acme.test")

    def send(self, *recipients, size=100):
        """The reply to the end of data, or to what was refused before it."""
        with smtplib.SMTP("127.0.0.1", self.port, timeout=20) as c:
            c.ehlo()
            code, text = c.mail("a@acme.test", [f"size={size}"])
            for r in recipients or ("b@dst.test",):
                code, text = (code, text) if code >= 400 else c.rcpt(r)
            if code < 400:
                body = b"x" * 76 + b"\r\n"
                code, text = c.data(b"From: a@acme.test\r\nSubject: x\r\n\r\n" + body * (size // 78))
            return code, text.decode()

    def usage(self):
        return json.loads(self.ctl("usage", "show", "acme", "--json"))

    def settled(self, **figures):
        """Waits until usage has these figures."""
        wait_until(lambda: figures.items() <= self.usage().items(), 20, f"{figures}")

    def letter(self, subject):
        """A letter to the owner, once it has arrived."""
        def find():
            letters = [email.message_from_bytes(m.content, policy=email.policy.default)
                       for m in self.sink.messages if m.recipients == ["owner@acme.test"]]
            return [m for m in letters if subject in m["Subject"]]
        return wait_until(find, 30, f"a letter: {subject}")[0]

    def letters(self):
        return [m for m in self.sink.messages if m.recipients == ["owner@acme.test"]]

    def later(self, seconds):
        self.faults.shift("wall", int(seconds))


needs_clock = pytest.mark.skipif(not fault_points.available(), reason="a build without fault points")


@pytest.fixture
def sink():
    with Sink() as s:
        s.replies = {"bad@dst.test": "550 5.1.1 no, \"such\" user"}
        yield s


def test_only_delivered_messages_count_and_bursts_in_blocks_of_1000(tmp_path, sink):
    with Relay(tmp_path, "burst", sink) as p:
        assert p.send("b@dst.test", "bad@dst.test")[0] == 250
        p.settled(messages=1, delivered=1, refunded=1, overage=0)
        assert p.send("c@dst.test", "d@dst.test", "e@dst.test")[0] == 250
        p.settled(messages=4, delivered=4, overage=1, overage_blocks=1)
        assert "Messages:  4 of 3" in p.letter("is over its plan").get_content()
        assert "what is over is charged extra" in p.letter("100% of the volume").get_content()


def test_megabytes_with_10_kb_at_least(tmp_path, sink):
    with Relay(tmp_path, "volume", sink) as p:
        assert p.send(*(f"r{i}@dst.test" for i in range(8)), size=1)[0] == 250
        p.settled(bytes=80000)
        assert p.send(size=25000)[0] == 550  # 20 KB are left
        assert p.send("b@dst.test", "c@dst.test", size=1)[0] == 250
        code, text = p.send(size=1)
        assert code == 550 and "used up until" in text
        assert p.send("bad@dst.test", size=1)[0] == 550


def content(size):
    """A message of exactly so many bytes, as a client counts them (RFC 1870)."""
    head = b"From: a@acme.test\r\nSubject: x\r\n\r\n"
    text = (b"x" * 76 + b"\r\n") * (size // 78 + 1)
    return head + text[:size - len(head) - 2] + b"\r\n"


def deliver(p, *messages):
    """The replies to the ends of data of one session; the dots are its own."""
    with smtplib.SMTP("127.0.0.1", p.port, timeout=20) as c:
        c.ehlo()
        replies = []
        for m in messages:
            assert c.docmd("MAIL FROM:<a@acme.test>")[0] == 250
            assert c.docmd("RCPT TO:<b@dst.test>")[0] == 250
            assert c.docmd("DATA")[0] == 354
            c.send(m.replace(b"\r\n.", b"\r\n..") + b".\r\n")
            replies.append(c.getreply())
        return replies


def test_200_kb_are_20_messages_of_exactly_10_kb(tmp_path, sink):
    """Our own header lines and stuffed dots are nobody's to pay."""
    dots = content(10000).replace(b"\r\nxxxx", b"\r\n.xxx")
    assert len(dots) == 10000 and dots.count(b"\r\n.") > 100
    with Relay(tmp_path, "tens", sink) as p:
        replies = deliver(p, *[content(10000)] * 10, *[dots] * 9)
        assert [code for code, _ in replies] == [250] * 19
        (code, text), = deliver(p, content(10001))  # that would be 10,001 of 10,000 bytes
        assert code == 550 and b"used up" in text
        assert deliver(p, content(10000))[0][0] == 250
        p.settled(bytes=200000, messages=20, delivered=20)
        sink.wait(20)
        assert sum(dots in m.content for m in sink.messages) == 9
        assert "ALARM" not in p.log()  # what was reserved is what is charged
        assert p.send(size=1)[0] == 550


def test_what_is_announced_is_taken(tmp_path, sink):
    """RFC 1870: SIZE is of the message that the client sends. With and without SIZE at MAIL,
    with DATA and with BDAT; one byte more gets 552."""
    with Relay(tmp_path, "small", sink, message_size_limit="5000") as p:
        with smtplib.SMTP("127.0.0.1", p.port, timeout=20) as c:
            c.ehlo()
            assert c.docmd("MAIL FROM:<a@acme.test>")[0] == 250
            c.docmd("RSET")
            c.ehlo()
            assert c.esmtp_features["size"] == "3000"
            assert c.docmd("MAIL FROM:<a@acme.test> SIZE=3001")[0] == 552

            def send(size, how, declared=""):
                assert c.docmd(f"MAIL FROM:<a@acme.test>{declared}")[0] == 250
                assert c.docmd("RCPT TO:<b@dst.test>")[0] == 250
                if how == "DATA":
                    assert c.docmd("DATA")[0] == 354
                    c.send(content(size) + b".\r\n")
                else:
                    c.send(b"BDAT %d LAST\r\n" % size + content(size))
                return c.getreply()
            for how in ("DATA", "BDAT"):
                assert send(3000, how)[0] == 250
                assert send(3000, how, " SIZE=3000")[0] == 250
                code, text = send(3001, how)
                assert code == 552 and b"a message may have 3000 bytes" in text
                assert send(3001, how, " SIZE=2999")[0] == 552
        p.settled(bytes=12000, delivered=4)
        p.ctl("account", "set", "acme", "--plan", "more")
        (code, _), (larger, text) = deliver(p, content(5000), content(5001))
        assert (code, larger) == (250, 552) and b"size" in text.lower()


def test_open_session_has_the_limits_that_hold_now(tmp_path, sink):
    with Relay(tmp_path, "small", sink) as p, \
            smtplib.SMTP("127.0.0.1", p.port, timeout=20) as c:
        def announced():
            c.ehlo()
            return c.esmtp_features["size"], c.esmtp_features.get("limits")

        def begin():
            assert c.docmd("MAIL FROM:<a@acme.test>")[0] == 250
            assert c.docmd("RCPT TO:<b@dst.test>")[0] == 250
            assert c.docmd("DATA")[0] == 354

        def finish(size):
            c.send(content(size) + b".\r\n")
            return c.getreply()
        c.ehlo()
        begin()
        assert finish(3000)[0] == 250
        assert announced()[0] == "3000"
        p.ctl("account", "set", "acme", "--plan", "roomy")
        wait_until(lambda: announced() == ("100000", "RCPTMAX=5"), 10, "the new plan's limits")
        begin()
        assert finish(100000)[0] == 250
        begin()
        p.ctl("account", "set", "acme", "--plan", "small")  # between MAIL and the end of data
        code, text = finish(3001)
        assert code == 552 and b"a message may have 3000 bytes" in text
        begin()  # without a new EHLO
        assert finish(3001)[0] == 552
        p.ctl("account", "set", "acme", "--plan", "more")
        begin()
        assert finish(5000)[0] == 250


def test_packages_on_top(tmp_path, sink):
    with Relay(tmp_path, "hard", sink) as p:
        assert p.send("b@dst.test", "c@dst.test", "d@dst.test")[0] == 250
        assert p.send()[0] == 550
        p.ctl("grant", "add", "acme", "2", "--note", "a package")
        assert p.send("e@dst.test", "f@dst.test")[0] == 250
        assert p.send()[0] == 550
        p.settled(granted=2, delivered=5)


@needs_clock
def test_stop_at_the_limit_resumes_next_month_and_the_month_is_reported(tmp_path, sink):
    with Relay(tmp_path, "hard", sink) as p:
        assert p.send("b@dst.test", "bad@dst.test", "c@dst.test")[0] == 250
        p.settled(delivered=2, refunded=1)
        assert p.send("d@dst.test")[0] == 250
        code, text = p.send()
        assert code == 550 and "5.7.1" in text
        p.settled(delivered=3)
        reset = datetime.datetime.fromtimestamp(p.usage()["end"], datetime.timezone.utc)
        assert reset.strftime("used up until %Y-%m-%d 00:00 UTC") in text
        p.later(31 * DAY)
        assert p.send()[0] == 250
        report = p.letter("Report of account acme for ")
        text, errors = report.iter_parts()
        assert "Delivered: 3\nFailed:    1\n" in text.get_content().replace("\r\n", "\n")
        assert errors.get_content_type() == "text/csv" and \
            errors.get_filename().startswith("acme-") and errors.get_filename().endswith("-errors.csv")
        head, line = errors.get_content().splitlines()[:2]
        assert head == '"time","account","user","id","recipient","reply"'
        assert '"bad@dst.test","550 5.1.1 no, ""such"" user' in line


@needs_clock
def test_unused_volume_is_credited_in_units_of_500_mb(tmp_path, sink):
    soon = (datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=3))
    with Relay(tmp_path, "credit", sink) as p:
        for amount in ("2600MB", "1GB"):
            p.ctl("grant", "add", "acme", amount, "--bought", "--until", soon.strftime("%Y-%m-%d"))
        p.later(4 * DAY)
        assert p.send()[0] == 250

        def credits():
            grants = [json.loads(line) for line in p.ctl("grant", "list", "acme", "--json").splitlines()]
            return [g["amount"] for g in grants if "credit" in g.get("note", "")]
        assert credits() == [2500000000]


def test_rates_refuse_with_450(tmp_path, sink):
    with Relay(tmp_path, "mailbox", sink) as p:
        assert p.send("b@dst.test", "c@dst.test")[0] == 250
        code, text = p.send()
        assert code == 450 and "the account may send 2 a day" in text


@needs_clock
def test_rates_hold_the_message_until_its_turn(tmp_path, sink):
    with Relay(tmp_path, "single", sink) as p:
        assert [p.send()[0], p.send()[0]] == [250, 250]
        sink.wait(1)
        wait_until(lambda: "held" in p.ctl("queue", "list", "--json") or
                   '"hold"' in p.ctl("queue", "list", "--json"), 10, "a held message")
        assert len(sink.messages) == 1
        p.later(61)
        sink.wait(2)


@needs_clock
def test_time_held_for_a_rate_is_no_part_of_the_lifetime(tmp_path, sink):
    """Held for six days, of which five are a message's lifetime: a first 450 is not the end."""
    with Relay(tmp_path, "single", sink, maximal_queue_lifetime="5d", minimal_backoff_time="1s",
               maximal_backoff_time="1s") as p:
        assert [p.send()[0], p.send("late@dst.test")[0]] == [250, 250]
        sink.wait(1)
        wait_until(lambda: '"hold"' in p.ctl("queue", "list", "--json"), 10, "a held message")
        sink.replies = {"late@dst.test": "450 4.2.1 later"}
        p.later(6 * DAY)
        p.faults.shift("mono", 6 * DAY)
        wait_until(lambda: sink.attempts.count("late@dst.test") >= 2, 90, "a second attempt")
        sink.replies = {}
        wait_until(lambda: [m for m in sink.messages if m.recipients == ["late@dst.test"]], 30,
                   "its delivery")
        assert "expired" not in p.log()


def test_recipients_and_size_of_a_message(tmp_path, sink):
    with Relay(tmp_path, "single", sink) as p:
        code, text = p.send("b@dst.test", "c@dst.test")
        assert code == 452 and "a message may have 1 recipients" in text
    os.mkdir(tmp_path / "two")
    with Relay(tmp_path / "two", "mailbox", sink) as p:
        assert p.send(size=100001)[0] == 552


def test_reports_at_every_ten_percent(tmp_path, sink):
    with Relay(tmp_path, "steps", sink) as p:
        for percent in (10, 20):
            assert p.send()[0] == 250
            letter = p.letter(f"Usage report of account acme: {percent}%")
            assert f"Messages:  {percent // 10} of 10" in letter.get_content()


def test_alerts_name_the_reset(tmp_path, sink):
    with Relay(tmp_path, "hard", sink) as p:
        assert p.send("b@dst.test", "c@dst.test", "d@dst.test")[0] == 250
        text = p.letter("100% of the volume of account acme is used").get_content()
        assert "From now on mail is refused until the reset" in text and "Messages:  3 of 3" in text
        assert re.search(r"^Since:     \d{4}-\d\d-01 00:00 UTC\r?$", text, re.M), text
        assert re.search(r"^Reset:     \d{4}-\d\d-01 00:00 UTC\r?$", text, re.M), text
        assert len(p.letters()) == 1, "several alerts at once"


def test_upgrade_at_the_limit(tmp_path, sink):
    """Mail is taken again at once, within the new plan, whose alerts come anew."""
    with Relay(tmp_path, "hard", sink) as p:
        assert p.send("b@dst.test", "c@dst.test", "d@dst.test")[0] == 250
        p.letter("100% of the volume")
        assert p.send()[0] == 550
        p.ctl("account", "set", "acme", "--plan", "more")
        assert p.send(*(f"r{i}@dst.test" for i in range(5)))[0] == 250
        assert "Messages:  8 of 10" in p.letter("80% of the volume").get_content()
        assert p.send("y@dst.test", "z@dst.test")[0] == 250
        wait_until(lambda: len(p.letters()) == 3, 20, "the letter about 100% of the new plan")
        assert p.send()[0] == 550


def test_alerts_come_again_after_a_package(tmp_path, sink):
    """Of both together; a package that is added moves all of them ahead."""
    with Relay(tmp_path, "hard", sink) as p:
        assert p.send("b@dst.test", "c@dst.test", "d@dst.test")[0] == 250
        p.letter("100% of the volume")
        p.ctl("grant", "add", "acme", "7")
        assert p.send(*(f"r{i}@dst.test" for i in range(4)))[0] == 250
        for used, percent in ((8, 80), (9, 90), (10, 100)):
            assert p.send()[0] == 250
            wait_until(lambda: any(f"Messages:  {used} of 3" in str(m.content)
                                   for m in p.letters()), 20, f"{percent}%")
            assert f"{percent}% of the volume" in str(p.letters()[-1].content)
        assert p.send()[0] == 550 and len(p.letters()) == 4


@needs_clock
def test_period_from_the_plan_s_own_day_in_its_zone(tmp_path, sink):
    """Resumes by itself a month after the plan began, at midnight of its customer."""
    zone = zoneinfo.ZoneInfo("America/New_York")
    began = datetime.datetime.now(zone) - datetime.timedelta(days=20)
    year, month = (began.year, began.month + 1) if began.month < 12 else (began.year + 1, 1)
    day = min(began.day, calendar.monthrange(year, month)[1])
    reset = datetime.datetime(year, month, day, tzinfo=zone)
    with Relay(tmp_path, "own_day", sink, "--began", began.strftime("%Y-%m-%d")) as p:
        assert p.usage()["end"] == reset.timestamp()
        assert p.send()[0] == 250
        code, text = p.send()
        assert code == 550 and reset.strftime("used up until %Y-%m-%d 00:00 ") in text
        p.later(reset.timestamp() - time.time() - 60)
        assert p.send()[0] == 550
        p.faults.clear()
        p.later(reset.timestamp() - time.time() + 5)
        assert p.send()[0] == 250


def test_plan_s_mail_leaves_from_its_pool(tmp_path, sink):
    """A dedicated address: what the receiving server sees."""
    conf = tmp_path / "sources.conf"
    conf.write_text("source shared { ipv4 = 127.0.0.11 }\nsource own { ipv4 = 127.0.0.12 }\n"
                    "pool default { sources = {shared} }\npool high { sources = {own} }\n")
    with Relay(tmp_path, "dedicated", sink, source_config_file=str(conf)) as p:
        for _ in range(3):
            assert p.send()[0] == 250
        assert [m.peer for m in sink.wait(3)] == 3 * ["127.0.0.12"]
        p.ctl("account", "set", "acme", "--plan", "more")

        def leaves_from_the_shared_one():  # once qmgr has heard of it
            before = len(sink.messages)
            assert p.send("o@dst.test")[0] == 250
            return sink.wait(before + 1)[-1].peer == "127.0.0.11"
        wait_until(leaves_from_the_shared_one, 20, "mail from the default pool")


@needs_clock
def test_plan_that_ends_is_announced_and_not_renewed(tmp_path, sink):
    day = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=20)
    with Relay(tmp_path, "ending", sink, "--ends", day.strftime("%Y-%m-%d")) as p:
        p.later(3600)  # the next look at all accounts
        assert "not renewed by itself" in p.letter("The plan of account acme ends in").get_content()
        assert p.send()[0] == 250
        p.faults.clear()
        p.later(21 * DAY)
        code, text = p.send()
        assert code == 550 and "plan has ended" in text


def test_spike_guard_holds_and_tells_the_owner(tmp_path, sink):
    with Relay(tmp_path, "guarded", sink) as p:
        for _ in range(5):
            assert p.send()[0] == 250
        sink.wait(5)
        assert p.send()[0] == 250
        text = p.letter("Unusual volume of account acme").get_content()
        assert "a password may" in text
        assert len([m for m in sink.messages if m.recipients == ["b@dst.test"]]) == 5
        p.wait_log("far above its usual")
        assert p.usage()["spike"] is True


# ---- the database is gone -----------------------------------------------------------------------


def test_F41_the_guides_procedure_with_mail_flowing(tmp_path, sink):
    """The operator's guide, "The accounts' database": an export, mail that goes on, the database
    lost without a snapshot, the import. Nothing is counted twice, nothing is forgotten that is
    in the queue, and qmgr's charges wait for the accounts."""
    sink.replies = {"late@dst.test": "450 4.2.0 not now"}
    place = os.path.join(str(tmp_path), "data", "accounts")
    with Relay(tmp_path, "burst", sink) as p:
        for _ in range(3):
            assert p.send()[0] == 250
        assert p.send("late@dst.test", "b@dst.test")[0] == 250   # one of two stays
        p.settled(delivered=4, messages=5)
        export = p.path("accounts.jsonl")
        with open(export, "w", encoding="utf-8") as f:
            f.write(p.ctl("account", "export"))
        for _ in range(4):
            assert p.send("late@dst.test")[0] == 250             # after the export
        p.settled(messages=9)
        p.stop()
        os.rename(os.path.join(place, "db"), os.path.join(str(tmp_path), "damaged-db"))
        p.start()
        wait_until(lambda: p.ctl("account", "status", check=False).returncode == 0, 20, "quota")
        p.wait_log("plans read from")
        p.ctl("account", "import", export)
        p.settled(delivered=4, messages=9)
        assert "charged to nobody" not in p.log()
        sink.replies = {}
        p.ctl("queue", "flush")
        p.settled(delivered=9, messages=9)
        assert p.send()[0] == 250
        p.settled(delivered=10, messages=10)
        audit = p.ctl("account", "audit", "--json")
        assert "account acme (new)" in audit
