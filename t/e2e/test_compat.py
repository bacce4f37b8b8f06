"""Postfix's commands by their names, as operators and their scripts use them."""
import json
import os
import re
import socket
import subprocess
import time

import pytest

from postern import BIN, Postern, free_port, wait_until
from sink import Sink

CONTENT = b"Subject: compat\r\nMessage-ID: <c.1@src.test>\r\n\r\nfirst\r\n.second\r\n"
NAMES = ("mailq", "postqueue", "postsuper", "postcat", "postconf")
REFUSED = "connect to 127.0.0.1[127.0.0.1]:{}: Connection refused"


class Tools:
    """The commands of one relay, found by their names as a shell does."""

    def __init__(self, directory, postern):
        self.postern = postern
        self.directory = os.path.join(directory, "compat")
        os.makedirs(self.directory, exist_ok=True)
        for name in NAMES:
            path = os.path.join(self.directory, name)
            if not os.path.lexists(path):
                os.symlink(os.path.join(BIN, "postern"), path)
        self.environment = {**os.environ, "MAIL_CONFIG": postern.directory, "TZ": "UTC",
                            "PATH": self.directory + ":" + os.environ["PATH"]}

    def run(self, command, text=True, **options):
        """A line of shell; the completed process."""
        options.setdefault("stdin", None if "input" in options else subprocess.DEVNULL)
        return subprocess.run(["sh", "-c", command], capture_output=True, text=text, check=False,
                              timeout=60, env=self.environment,
                              **{k: v for k, v in options.items() if v is not None})

    def out(self, command, **options):
        done = self.run(command, **options)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout


def takes_mail(p):
    with p.client() as c:
        c.ehlo()
        return c.mail("probe@src.test")[0] == 250


@pytest.fixture
def stuck(place):
    """Four messages from different senders that wait; `ids` and `tools` go with it."""
    port = free_port()
    with Postern(place, relayhost=f"[127.0.0.1]:{port}") as p:
        wait_until(lambda: takes_mail(p), 20, "an accepted sender")
        p.reason = REFUSED.format(port)
        p.tools = Tools(place, p)
        p.ids = [p.send(f"s{i}@src.test" if i else "",
                        [f"b{i}@{'odd' if i % 2 else 'even'}.test"], CONTENT) for i in range(4)]
        wait_until(lambda: len(deferred(p)) == 4, 20, "four deferred messages")
        yield p


def entries(p):
    return [json.loads(line) for line in p.tools.out("postqueue -j").splitlines()]


def deferred(p):
    return [m for m in entries(p)
            if m["queue_name"] == "deferred" and "delay_reason" in m["recipients"][0]]


def showq(p):
    """The list as an exporter reads it: records of names and values."""
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(20)
        s.connect(p.path("spool/public/showq"))
        data = b""
        while piece := s.recv(65536):
            data += piece
    words = data.split(b"\0")
    assert words.pop() == b"" and words.pop() == b"", "the list has its end"
    records, record = [], []
    while words:
        name = words.pop(0).decode()
        if name:
            record.append((name, words.pop(0).decode()))
        else:
            records.append(record)
            record = []
    assert not record
    return records


# ---- formats -----------------------------------------------------------------------


def expected_row(p, i, mark=""):
    m = entries(p)[i]
    when = time.asctime(time.gmtime(m["arrival_time"]))[:19]
    assert m["queue_id"] == p.ids[i]
    reason = m["recipients"][0]["delay_reason"]
    return (f"{p.ids[i] + mark:<17} {m['message_size']:8} {when} {m['sender']}\n"
            + " " * max(0, 76 - len(reason)) + f"({reason})\n"
            + " " * 47 + m["recipients"][0]["address"] + "\n")


def test_mailq_of_an_empty_queue(place):
    with Postern(place) as p:
        tools = Tools(place, p)
        for command in ("mailq", "postqueue -p", f"postqueue -c {place} -p"):
            assert tools.out(command) == "Mail queue is empty\n"
        assert tools.out("postqueue -j") == ""
        assert showq(p) == [[("protocol", "mail_queue_list_protocol")]]


def test_mailq_is_exact(stuck):
    stuck.tools.out(f"postsuper -h {stuck.ids[1]}")
    size = sum(m["message_size"] for m in entries(stuck))
    rows = [expected_row(stuck, i, "!" if i == 1 else "") for i in range(4)]
    expected = ("----Queue ID----- --Size-- ---Arrival Time---- --Sender/Recipient------\n"
                + "\n".join(rows) + f"\n-- {size // 1024} Kbytes in 4 Requests.\n")
    assert stuck.tools.out("mailq") == expected
    assert stuck.tools.out("postqueue -p") == expected
    assert "MAILER-DAEMON" in rows[0]
    stuck.tools.out("postsuper -d ALL hold")
    stuck.tools.out(f"postsuper -d {stuck.ids[2]} -d {stuck.ids[3]}")
    assert stuck.tools.out("mailq").endswith(" Kbytes in 1 Request.\n")


def test_postqueue_j_is_exact(stuck):
    lines = stuck.tools.out("postqueue -j").splitlines()
    for i, line in enumerate(lines):
        m = json.loads(line)
        assert list(m)[:7] == ["queue_name", "queue_id", "arrival_time", "message_size",
                               "forced_expire", "sender", "recipients"]
        sender = f"s{i}@src.test" if i else "MAILER-DAEMON"
        domain = "odd" if i % 2 else "even"
        reason = m["recipients"][0]["delay_reason"]
        assert reason.endswith(stuck.reason)
        assert line == (f'{{"queue_name": "deferred", "queue_id": "{stuck.ids[i]}", '
                        f'"arrival_time": {m["arrival_time"]}, "message_size": '
                        f'{m["message_size"]}, "forced_expire": false, "sender": "{sender}", '
                        f'"recipients": [{{"address": "b{i}@{domain}.test", '
                        f'"delay_reason": "{reason}"}}]}}')


def test_showq_as_an_exporter_reads_it(stuck):
    protocol, *records = showq(stuck)
    assert protocol == [("protocol", "mail_queue_list_protocol")]
    assert len(records) == 4
    for record, id_ in zip(records, stuck.ids):
        assert [name for name, _ in record] == ["queue_name", "queue_id", "time", "size",
                                                "forced_expire", "sender", "recipient", "reason"]
        values = dict(record)
        assert values["queue_name"] == "deferred" and values["queue_id"] == id_
        assert abs(int(values["time"]) - time.time()) < 120 and int(values["size"]) > 0


def test_showq_of_a_message_with_many_recipients(place):
    """More than the server makes at a time, to a client that reads late."""
    with Postern(place, relayhost=f"[127.0.0.1]:{free_port()}",
                 smtpd_recipient_limit="5000") as p:
        tools = p.tools = Tools(place, p)
        wait_until(lambda: takes_mail(p), 20, "an accepted sender")
        many = [f"{'x' * 40}{i}@many.test" for i in range(3000)]
        p.send("a@src.test", many, CONTENT)
        p.send("b@src.test", ["last@src.test"], CONTENT)
        wait_until(lambda: len(deferred(p)) == 2, 30, "deferred messages")
        _, first, second = showq(p)
        assert [v for k, v in first if k == "recipient"] == many
        assert ("recipient", "last@src.test") in second
        assert tools.out("mailq").count("@many.test") == 3000


def test_showq_client_that_goes_away_harms_nobody(stuck):
    for _ in range(40):
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(stuck.path("spool/public/showq"))
    wait_until(lambda: len(showq(stuck)) == 5, 20, "a whole list")


def test_postcat(stuck):
    body = stuck.tools.out(f"postcat -q {stuck.ids[2]}")
    parts = re.split(r"^\*\*\* (.*) \*\*\*\n", body, flags=re.M)
    name = f"deferred/{stuck.ids[2]}"
    assert [p.replace(name, "").strip() for p in parts[1::2]] == \
        ["ENVELOPE RECORDS", "MESSAGE CONTENTS", "HEADER EXTRACTED", "MESSAGE FILE END"]
    assert "\nsender: s2@src.test\n" in parts[2] and "\nrecipient: b2@even.test\n" in parts[2]
    assert parts[4].startswith("Received: from ")
    assert parts[4].endswith("Subject: compat\nMessage-ID: <c.1@src.test>\n\nfirst\n.second\n")
    assert stuck.tools.out(f"postcat -bh -q {stuck.ids[2]}") == parts[4]
    header = stuck.tools.out(f"postcat -h -q {stuck.ids[2]}")
    assert header.endswith("Message-ID: <c.1@src.test>\n")
    assert header + stuck.tools.out(f"postcat -b -q {stuck.ids[2]}") == parts[4]
    assert stuck.tools.out(f"postcat -e -q {stuck.ids[2]}") == body.replace(parts[4], "")


def test_postconf(stuck):
    assert stuck.tools.out("postconf -h queue_directory") == stuck.path("spool") + "\n"
    assert stuck.tools.out("postconf myhostname mail_name") == \
        "myhostname = relay.test\nmail_name = Postern\n"
    assert "relay.test" not in stuck.tools.out("postconf -d myhostname")
    changed = stuck.tools.out("postconf -n").splitlines()
    assert "mynetworks = 127.0.0.0/8" in changed and len(changed) == len(stuck.config)
    assert len(stuck.tools.out("postconf").splitlines()) > 100
    done = stuck.tools.run("postconf -h myhostname no_such_thing mail_version")
    assert done.returncode == 0 and done.stderr == \
        "postconf: warning: no_such_thing: unknown parameter\n"
    assert re.fullmatch(r"relay\.test\n\d+\.\d+\.\d+\n", done.stdout)


# ---- what operators type -------------------------------------------------------------

def remaining(p):
    return [m["queue_id"] for m in entries(p)]


def test_ten_one_liners(stuck):
    tools, ids = stuck.tools, stuck.ids
    # 1 how many
    assert tools.out("mailq | tail -n 1 | awk '{print $5}'") == "4\n"
    # 2 the same by the IDs
    assert tools.out("mailq | grep -c '^[0-9A-Za-z]'") == "4\n"
    # 3 how many of each sender
    assert tools.out("postqueue -p | awk '/^[0-9A-Za-z]/ {print $7}' | sort | uniq -c | sort -n"
                     " | awk '{print $1, $2}'").split("\n")[:4] == \
        ["1 MAILER-DAEMON", "1 s1@src.test", "1 s2@src.test", "1 s3@src.test"]
    # 4 why mail waits
    assert tools.out("postqueue -j | jq -r '.recipients[].delay_reason' | sort -u"
                     " | grep -c refused").strip() in ("1", "2")
    # 5 domains of recipients
    assert tools.out("mailq | awk '/^ +[^ (]+@/ {sub(/.*@/, \"\"); print}' | sort | uniq -c"
                     " | awk '{print $1 $2}'") == "2even.test\n2odd.test\n"
    # 6 hold what one sender sent
    done = tools.run("postqueue -p | tail -n +2 | awk 'BEGIN { RS = \"\" } $7 == \"s3@src.test\""
                     " { print $1 }' | tr -d '*!' | postsuper -h -")
    assert done.stderr == f"postsuper: {ids[3]}: placed on hold\n" \
                          "postsuper: Placed on hold: 1 message\n"
    assert tools.out("mailq | grep -c '^[0-9A-Za-z]*!'") == "1\n"
    # 7 and release it
    done = tools.run("mailq | awk '/^[0-9A-Za-z]+!/ {print $1}' | tr -d '*!' | postsuper -H -")
    assert done.stderr.endswith("postsuper: Released from hold: 1 message\n")
    # 8 look at the newest
    assert tools.out("mailq | awk '/^[0-9A-Za-z]/ {id=$1} END {print id}' | tr -d '*!'"
                     " | xargs postcat -bq | head -n 2") == "\nfirst\n"
    # 9 delete notices
    done = tools.run("mailq | grep MAILER-DAEMON | awk '{print $1}' | tr -d '*!' | postsuper -d -")
    assert done.stderr == f"postsuper: {ids[0]}: removed\npostsuper: Deleted: 1 message\n"
    wait_until(lambda: remaining(stuck) == ids[1:], 10, "the deletion")
    # 10 delete by the recipient
    done = tools.run("postqueue -j | jq -r 'select(.recipients[0].address == \"b1@odd.test\")"
                     " | select(.recipients[1].address == null) | .queue_id' | postsuper -d -")
    assert done.stderr == f"postsuper: {ids[1]}: removed\npostsuper: Deleted: 1 message\n"
    wait_until(lambda: remaining(stuck) == ids[2:], 10, "the deletion")
    # and what ends every bad day
    assert tools.run("postsuper -d ALL deferred hold").stderr == "postsuper: Deleted: 2 messages\n"
    wait_until(lambda: tools.out("mailq") == "Mail queue is empty\n", 10, "an empty queue")


def test_postsuper_counts_and_refuses(stuck):
    tools, ids = stuck.tools, stuck.ids
    assert tools.run("postsuper -h ALL").stderr == "postsuper: Placed on hold: 4 messages\n"
    assert tools.run("postsuper -h ALL").stderr == ""
    done = tools.run(f"postsuper -r {ids[0]} -H {ids[1]} -H {ids[2]}")
    assert done.stderr.splitlines()[-2:] == ["postsuper: Requeued: 1 message",
                                             "postsuper: Released from hold: 2 messages"]
    assert [m["queue_id"] for m in entries(stuck) if m["queue_name"] == "hold"] == [ids[3]]
    done = tools.run("postsuper -d -", input=f"{ids[0]}\nno-id\n\n4XyzBbCdfFz0001\n", stdin=None)
    assert done.returncode == 0 and done.stderr == (
        f"postsuper: warning: invalid mail queue id: no-id\npostsuper: {ids[0]}: removed\n"
        "postsuper: Deleted: 1 message\n")
    for command, words in (("-d all", "use '-d ALL' (upper case)"), ("-d", "usage: postsuper"),
                           ("-d ALL new", "invalid directory name: new"), ("-Q", "usage:")):
        done = tools.run(f"postsuper {command}")
        assert done.returncode == 1 and done.stderr.startswith(f"postsuper: fatal: {words}")
    done = tools.run(f"postsuper -f {ids[3]}")
    assert done.stderr == f"postsuper: {ids[3]}: expired\npostsuper: Force-expired: 1 message\n"
    stuck.wait_log(rf"{ids[3]}: from=<s3@src\.test>, status=(force-)?expired, returned to sender")


def test_flushing(place):
    port = free_port()
    with Postern(place, relayhost=f"[127.0.0.1]:{port}") as p:
        tools = p.tools = Tools(place, p)
        wait_until(lambda: takes_mail(p), 20, "an accepted sender")
        ids = [p.send("a@src.test", [f"r@{d}.test"], CONTENT) for d in ("one", "two", "three")]
        wait_until(lambda: len(deferred(p)) == 3, 20, "deferred messages")
        with Sink(port) as sink:
            tools.out(f"postqueue -i {ids[1]}")
            assert sink.wait(1)[0].recipients == ["r@two.test"]
            tools.out("postqueue -s three.test")
            assert sink.wait(2)[1].recipients == ["r@three.test"]
            tools.out("postqueue -f")
            assert sink.wait(3)[2].recipients == ["r@one.test"]
        for command, words in (
                ("-i nonsense", 'Cannot flush queue ID - invalid name: "nonsense"'),
                ("-s '*'", 'Cannot flush mail queue - invalid destination: "*"'),
                ("", "usage: postqueue -f | "), ("-f -p", "usage:"), ("-p x", "usage:")):
            done = tools.run(f"postqueue {command}")
            assert done.returncode == 64 and done.stderr.startswith(f"postqueue: fatal: {words}")


def test_without_a_running_relay(place):
    p = Postern(place, start=False)
    tools = Tools(place, p)
    done = tools.run("mailq")
    assert done.returncode == 69 and done.stderr.startswith(
        "mailq: fatal: Queue report unavailable - mail system is down (Connect to the ")
    done = tools.run("postqueue -f")
    assert (done.returncode, done.stderr) == (
        69, "postqueue: fatal: Cannot flush mail queue - mail system is down\n")
    done = tools.run("postsuper -d ALL")
    assert done.returncode == 1 and done.stderr.startswith("postsuper: fatal: Postern is not run")
    done = tools.run("postcat -q 4XyzBbCdfFz0001")
    assert done.returncode == 1 and done.stderr.startswith("postcat: fatal: Postern is not run")
    done = tools.run("postqueue -c /nonexistent -p")
    assert done.returncode != 0 and done.stderr.startswith("postqueue: fatal: /nonexistent/main.cf")
