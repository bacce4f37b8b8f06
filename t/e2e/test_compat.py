"""Postfix's commands by their names, as operators and their scripts use them."""
import json
import os
import re
import smtplib
import shutil
import socket
import subprocess
import time

import pytest

from postern import BIN, Postern, free_port, wait_until
from sink import Sink

CONTENT = b"Subject: compat\r\nMessage-ID: <c.1@src.test>\r\n\r\nfirst\r\n.second\r\n"
NAMES = ("mailq", "postqueue", "postsuper", "postcat", "postconf", "sendmail")
REFUSED = "connect to 127.0.0.1[127.0.0.1]:{}: Connection refused"


class Tools:
    """The commands of one relay, found by their names as a shell does."""

    def __init__(self, directory, postern):
        self.postern = postern
        self.directory = os.path.join(directory, "compat")
        os.makedirs(self.directory, exist_ok=True)
        # a copy: other users may not reach the build folder
        program = os.path.join(self.directory, "postern")
        if not os.path.exists(program):
            shutil.copy(os.path.join(BIN, "postern"), program)
        for name in NAMES:
            path = os.path.join(self.directory, name)
            if not os.path.lexists(path):
                os.symlink("postern", path)
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
        # those who do not read keep others out, but only for as long as they are there
        idle = [socket.socket(socket.AF_UNIX) for _ in range(16)]
        for s in idle:
            s.connect(p.path("spool/public/showq"))
        done = tools.run("mailq")
        assert done.returncode == 69 and "ended too early" in done.stderr, done.stderr
        idle[0].recv(1000)
        for s in idle:
            s.close()
        wait_until(lambda: tools.run("mailq").stdout.count("@many.test") == 3000, 20, "the list")


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
    assert stuck.tools.out("postconf -xh queue_directory") == stuck.path("spool") + "\n"
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
    assert tools.run("postsuper -h ALL").stderr == "postsuper: Placed on hold: 0 messages\n"
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
            assert done.returncode == 69 and done.stderr.startswith(f"postqueue: fatal: {words}")


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


# ---- sendmail ------------------------------------------------------------------------

MASTER = ("127.0.0.1:{} inet n - y - 1 smtpd\n"
          "submit unix n - y - 1 smtpd\n  -o smtpd_service_kind=submission\n")


class Local:
    """A relay that local users may hand mail to, and a server that gets it."""

    def __init__(self, place, **config):
        self.sink = Sink()
        self.postern = Postern(place, start=False, relayhost=f"[127.0.0.1]:{self.sink.port}",
                               mynetworks="192.0.2.0/24", **config)
        self.postern.master_cf = MASTER.format(self.postern.port)
        self.postern.write_config()
        self.tools = self.postern.tools = Tools(place, self.postern)

    def __enter__(self):
        self.postern.start()
        return self

    def __exit__(self, *problem):
        self.postern.__exit__(*problem)
        self.sink.stop()


@pytest.fixture
def local(place):
    with Local(place) as it:
        yield it


def test_sendmail_t(local):
    done = local.tools.run(
        "sendmail -t -i -f me@src.test -F 'Me, \"Myself\"'", stdin=None,
        input="From x Sat Nov 21 22:17:18 2026\n"
              "To: Joe <joe@dst.test>, \"B, Ob\" <bob@dst.test>\n"
              "Cc: joe@dst.test,\n group: carol@dst.test (at home);\n"
              "Bcc: secret@dst.test\nSubject: hello\n\nline\n.\n..two\nlast, no end")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    m = local.sink.wait(1)[0]
    assert m.sender == "me@src.test"
    assert sorted(m.recipients) == [f"{n}@dst.test" for n in ("bob", "carol", "joe", "secret")]
    header, body = m.content.split(b"\r\n\r\n", 1)
    assert body == b"line\r\n.\r\n..two\r\nlast, no end\r\n"
    assert b"secret" not in header and b"Bcc" not in header
    assert b'\r\nFrom: "Me, \\"Myself\\"" <me@src.test>' in header
    assert b"\r\nDate: " in header and b"\r\nMessage-ID: <" in header
    assert re.match(rb"Received: by relay\.test \(Postern, from userid %d\)\r\n\tid \w+;"
                    % os.getuid(), header)
    id_ = re.search(rb"id (\w+);", header)[1].decode()
    local.postern.wait_log(rf"postern/pickup\[\d+\]: {id_}: uid={os.getuid()} "
                           r"from=<me@src\.test>$")


def test_sendmail_with_arguments(local):
    out = local.tools.out
    text = "printf 'Subject: x\\r\\nFrom: a@b.test\\r\\n\\r\\ntext\\r\\n.\\r\\nnot this\\r\\n' | "
    out(text + "sendmail -oi -oem -odb -om -o7 -o8 -Am -Ac -m -c -G -n -U -h 3 -L tag -X /dev/null -O x=y -B8BITMIME "
        "-f '<>' -N failure,delay -R hdrs -V id=1+ 'Joe <one@dst.test>' two@dst.test,three@dst.test")
    m = local.sink.wait(1)[0]
    assert m.sender in ("", "<>", None) and sorted(m.recipients) == \
        ["one@dst.test", "three@dst.test", "two@dst.test"]
    assert m.content.endswith(b"\r\nFrom: a@b.test\r\n\r\ntext\r\n.\r\nnot this\r\n")
    assert b"for <" not in m.content
    out(text + "sendmail one@dst.test")
    m = local.sink.wait(2)[1]
    assert m.content.endswith(b"\r\n\r\ntext\r\n"), "without -i a dot is the end"
    assert m.sender.endswith("@relay.test")
    done = local.tools.run(text + "sendmail -v -i bare")
    assert "250 2.0.0 Ok: queued as" in done.stderr
    assert local.sink.wait(3)[2].recipients == ["bare@relay.test"], "at myorigin"
    assert local.tools.out("sendmail -bv one@dst.test") == "one@dst.test: 250 2.1.5 Ok\n"


def test_sendmail_speaks_smtp(local):
    dialogue = ("EHLO x\r\nMAIL FROM:<a@src.test>\r\nRCPT TO:<b@dst.test>\r\nDATA\r\n",
                "Subject: bs\r\n\r\nhi\r\n.\r\nQUIT\r\n")
    with subprocess.Popen(["sendmail", "-bs"], env=local.tools.environment, text=True,
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          executable=os.path.join(local.tools.directory, "sendmail")) as process:
        assert process.stdout.readline().startswith("220 relay.test")
        replies = ""
        for part in dialogue:
            process.stdin.write(part)
            process.stdin.flush()
            while not re.search(r"^(354|221) ", replies.splitlines()[-1] if replies else ""):
                replies += process.stdout.readline()
            replies += "\n"
        assert process.wait(10) == 0
    assert local.sink.wait(1)[0].content.endswith(b"Subject: bs\r\n\r\nhi\r\n")


def test_sendmail_lists_and_flushes(local):
    assert local.tools.out("sendmail -bp") == "Mail queue is empty\n"
    assert local.tools.out("sendmail -q; sendmail -qRdst.test; sendmail -bi; sendmail -q30m") == ""


@pytest.mark.parametrize("option", ["-N x", "-N 'never NOTIFY=x'", "-N never,failure", "-R some"])
def test_sendmail_without_what_it_cannot_read(local, option):
    """As Postfix's: better the message without a bad option than none."""
    done = local.tools.run(f"echo hello | sendmail {option} a@dst.test")
    assert done.returncode == 0
    assert done.stderr.startswith(f"sendmail: warning: bad {option[:2]} option value -- ignored")
    assert local.sink.wait(1)[0].recipients == ["a@dst.test"]


@pytest.mark.parametrize("command, status, words", [
    ("sendmail", 64, r"sendmail: fatal: \w+\(\d+\): Recipient addresses must be specified on the "
                     r"command line or via the -t option"),
    ("sendmail -t", 65, "No recipient addresses found in message header"),
    ("echo 'To: Joe Doe' | sendmail -t", 65, "cannot be read"),
    ("sendmail 'a b'", 65, "a b: is not an address"),
    ("sendmail -f 'x\r\nRCPT TO:<y>' a@b.test", 64, "malformed sender"),
    ("sendmail 'a@b.test>\r\nDATA'", 65, "is not an address"),
    ("sendmail -bd", 64, "-b takes"), ("sendmail -qx", 64, "-q takes"),
    ("sendmail -bp x", 64, "takes no recipients"),
    ("sendmail -C /nonexistent a@b.test", 78, "/nonexistent/main.cf"),
    ("head -c 3000000 /dev/zero | tr '\\0' 'x' | sendmail a@b.test", 69, "larger than"),
])
def test_sendmail_exit_statuses(local, command, status, words):
    local.postern.write_config(message_size_limit="100000")
    done = local.tools.run(command)
    assert done.returncode == status and re.search(words, done.stderr), done
    assert done.stderr.startswith("sendmail: fatal: ")


def test_sendmail_refused_by_the_relay(place):
    with Local(place, message_size_limit="100000") as local:
        done = local.tools.run("(echo; head -c 150000 /dev/zero | tr '\\0' 'x' | fold) |"
                               " sendmail a@dst.test")
        assert done.returncode == 69 and "the message was not sent" in done.stderr, done
        assert local.tools.out("mailq") == "Mail queue is empty\n"


def test_sendmail_when_the_relay_is_down(place):
    p = Postern(place, start=False)
    tools = Tools(place, p)
    done = tools.run("echo hello | sendmail a@dst.test")
    assert done.returncode == 75
    assert done.stderr.startswith("sendmail: fatal: Postern is not running, or master.cf has no")
    assert tools.run("sendmail -bs").returncode == 75
    assert tools.run("sendmail -bp").returncode == 69
    assert tools.run("sendmail -q").returncode == 69


def test_reload_opens_and_closes_the_socket(place):
    with Local(place) as local:
        p, send = local.postern, "echo hello | sendmail a@dst.test"
        with_line, without = p.master_cf, p.master_cf.split("submit")[0]
        assert local.tools.run(send).returncode == 0
        p.master_cf = without
        p.write_config()
        p.ctl("reload")
        wait_until(lambda: local.tools.run(send).returncode == 75, 20, "a closed socket")
        p.master_cf = with_line
        p.write_config()
        p.ctl("reload")
        wait_until(lambda: local.tools.run(send).returncode == 0, 20, "an open socket")
    assert sorted(os.listdir(p.path("spool/public"))) == []


def test_sendmail_with_more_recipients_than_a_transaction(place):
    with Local(place, smtpd_recipient_limit="120") as local:
        many = [f"r{i}@dst.test" for i in range(250)]
        done = local.tools.run("sendmail -i -t", stdin=None,
                               input="To: " + ",\n ".join(many) + "\n\nhi\n")
        assert done.returncode == 0, done
        wait_until(lambda: sum(len(m.recipients) for m in local.sink.messages) >= 250, 20, "all")
        assert sorted(r for m in local.sink.messages for r in m.recipients) == sorted(many)


@pytest.mark.skipif(os.getuid() != 0, reason="needs another user")
def test_every_user_may_send_and_list_but_not_change(local):
    """As nobody, who is in no group of Postern's."""
    tools = local.tools

    def as_nobody(command, **options):
        return tools.run("setpriv --reuid=65534 --regid=65534 --clear-groups sh -c "
                         f"'{command}'", **options)
    done = as_nobody("sendmail -f n@src.test a@dst.test", stdin=None, input="Subject: n\n\nhi\n")
    assert done.returncode == 0, done
    assert b"(Postern, from userid 65534)" in local.sink.wait(1)[0].content
    wait_until(lambda: tools.out("mailq") == "Mail queue is empty\n", 10, "an empty queue")
    assert as_nobody("mailq").stdout == "Mail queue is empty\n"
    for command in ("postsuper -d ALL", "postqueue -f", "postcat -q 4XyzBbCdfFz0001"):
        done = as_nobody(command)
        assert done.returncode != 0 and "fatal: you may not use the control socket" in done.stderr
    spool = local.postern.path("spool")
    for path in (spool, spool + "/new", spool + "/public"):
        assert as_nobody(f"ls {path}").returncode != 0, path


# ---- logs ----------------------------------------------------------------------------

def test_pflogsumm_counts_rightly(place):
    """Two messages by the network and one by a user; one recipient is refused for
    good, one for now; one message is not taken."""
    local, closed = Local(place, compatible_log_names="yes"), free_port()
    local.postern.master_cf += (f"127.0.0.1:{closed} inet n - y - 1 smtpd\n"
                                "  -o mynetworks=192.0.2.0/24\n")
    local.postern.write_config(mynetworks="127.0.0.0/8")
    with local:
        p, sink = local.postern, local.sink
        sink.replies = {"gone@dst.test": "550 5.1.1 no such user",
                        "busy@dst.test": "450 4.2.1 mailbox busy"}
        with smtplib.SMTP("127.0.0.1", closed, "client.test", 30) as c:
            c.ehlo()
            c.mail("x@src.test")
            assert c.rcpt("y@dst.test")[0] == 554
        p.send("a@src.test", ["one@dst.test", "gone@dst.test"], CONTENT)
        p.send("b@src.test", ["two@dst.test", "busy@dst.test"], CONTENT)
        local.tools.out("printf 'Subject: u\\n\\nhi\\n' | sendmail -f c@src.test three@dst.test")
        p.wait_log(r"status=bounced")
        p.wait_log(r"to=<busy@dst\.test>.*status=deferred")
        p.wait_log(r"to=<a@src\.test>.*status=sent")
        p.wait_log(r"to=<three@dst\.test>.*status=sent")
        log = p.path("log")
        report = subprocess.run(["pflogsumm", "--problems-first", log], capture_output=True,
                                text=True, check=True, timeout=60).stdout
        found = {word: int(count) for count, word in
                 re.findall(r"^\s+(\d+)\s+(received|delivered|deferred|bounced|rejected)\b", report,
                            re.M)}
        # three from outside; the notice is Postern's own and has no client
        assert found["received"] == 3 and found["delivered"] == 4, report
        assert (found["deferred"], found["bounced"], found["rejected"]) == (1, 1, 1), report
        assert re.search(r"^\s+4\s+recipients$", report, re.M), report
        assert re.search(r"550 5\.1\.1|no such user", report), report
        assert re.search(r"^\s+\d+\s+a@src\.test$", report, re.M), report
