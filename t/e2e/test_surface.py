"""Programs that were written for Postfix, unchanged: pflogsumm, fail2ban, the
Prometheus exporter, Debian's own postqueue, and what operators type, which the
operator's guide lists."""
import os
import re
import socket
import subprocess
import urllib.request

import pytest

from peers import Postfix, laid_over, needs_root, write_etc, write_file
from postern import ROOT, Postern, free_port, wait_until
from sink import Sink
from test_compat import Local, Tools, deferred, entries, takes_mail

BODY = b"Subject: surface\r\n\r\nhello\r\n"
MODES = ("more", "normal", "auth", "rbl", "ddos", "extra", "aggressive", "errors")


# ---- fail2ban ------------------------------------------------------------------------

def talk(port, source, lines, end=b""):
    """A session from a 127/8 address: sends each line, waits for its reply."""
    with socket.create_connection(("127.0.0.1", port), 20, (source, 0)) as s:
        f = s.makefile("rb")

        def reply():
            while (line := f.readline())[3:4] == b"-":
                pass
            return line
        reply()
        last = b""
        for line in lines:
            s.sendall(line)
            last = reply()
        s.sendall(end)
        return last


@pytest.fixture(scope="module")
def abuse(tmp_path_factory):
    """The log of a relay in which each client, by its address, did one thing."""
    place, closed = str(tmp_path_factory.mktemp("abuse")), [free_port(), free_port()]
    os.chmod(place, 0o755)
    with Sink() as sink:
        p = Postern(place, start=False, relayhost=f"[127.0.0.1]:{sink.port}",
                    compatible_log_names="yes", smtpd_hard_error_limit="3")
        p.master_cf = (f"127.0.0.1:{p.port} inet n - y - 1 smtpd\n  -o mynetworks=127.0.0.1/32\n"
                       f"127.0.0.1:{closed[0]} inet n - y - 1 smtpd\n"
                       "  -o smtpd_client_restrictions=reject\n"
                       f"127.0.0.1:{closed[1]} inet n - y - 1 smtpd\n"
                       "  -o smtpd_recipient_restrictions=reject\n")
        p.write_config()
        p.start()
        with p:
            misbehave(p, closed)
            sink.wait(1)
            for words in ("127.0.0.4", "127.0.0.5", "127.0.0.6", "127.0.0.7"):
                wait_until(lambda w=words: f"disconnect from unknown[{w}]" in p.log())
            p.wait_log("removed$")
            yield p.path("log")


def misbehave(p, closed):
    hello, mail = b"EHLO client.test\r\n", b"MAIL FROM:<a@src.test>\r\n"
    rcpt = b"RCPT TO:<b@dst.test>\r\n"
    assert talk(p.port, "127.0.0.2", [hello, mail, rcpt], b"QUIT\r\n").startswith(b"554 5.7.1")
    talk(p.port, "127.0.0.3", [hello] + [b"FOO\r\n"] * 3)
    talk(p.port, "127.0.0.4", [hello])
    p.send("a@src.test", ["good@dst.test"], BODY)
    with socket.create_connection(("127.0.0.1", p.port), 20, ("127.0.0.5", 0)) as s:
        s.recv(512)
        s.sendall(hello + mail + b"RCPT TO:<good@dst.test>\r\nDATA\r\nbefore the 354\r\n.\r\n")
        while s.recv(4096):
            pass
    for port, source in zip(closed, ("127.0.0.6", "127.0.0.7")):
        assert talk(port, source, [hello, mail, rcpt], b"QUIT\r\n").startswith(b"554 5.7.1")


def banned(log, mode):
    """The addresses that fail2ban's own filter finds in the log."""
    done = subprocess.run(["fail2ban-regex", "-r", "-o", "ip", log, f"postfix[mode={mode}]"],
                          capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return sorted(set(done.stdout.split()))


@pytest.mark.parametrize("mode", MODES)
def test_fail2ban_finds_who_misbehaves(abuse, mode):
    normal = {"127.0.0.2", "127.0.0.3", "127.0.0.5", "127.0.0.6"}
    left = {"127.0.0.1", "127.0.0.4"}   # without a word, at the start; after EHLO
    # auth and rbl are about log lines of which there are none here. That a recipient
    # is refused by a rule (127.0.0.7) the filter does not hold against its client.
    found = {"normal": normal, "more": normal, "extra": normal, "ddos": left,
             "aggressive": normal | left, "errors": {"127.0.0.3"}, "auth": set(), "rbl": set()}
    with open(abuse, encoding="utf-8") as f:
        print(f.read())
    assert banned(abuse, mode) == sorted(found[mode])


# ---- pflogsumm -----------------------------------------------------------------------

def grand_totals(report):
    """What the first section says: {"received": 3, ...}; "deferrals" from its parentheses."""
    text = report[report.index("Grand Totals"):report.index("Per-Hour Traffic Summary")]
    found = {name: int(count) for count, name in re.findall(r"^ *(\d+) +([a-z/ ]+\b)", text, re.M)}
    return {**found, "deferrals": int(re.search(r"\((\d+) +deferrals\)", text)[1])}


def table(report, title):
    """Rows of one section: the numbers of each, by the name at its end."""
    text = report[report.index("\n" + title) + 1:].split("\n\n")[0]
    rows = [line.split() for line in text.splitlines()[2:]]
    return {row[-1]: tuple(int(word) for word in row[:-1] if word.isdigit())
            for row in rows if row[0].isdigit()}


def hours(report):
    """The columns of the table by hours, added up."""
    text = report[report.index("Per-Hour Traffic Summary"):].split("\n\n")[0]
    rows = re.findall(r"^ +\d{4}-\d{4} +(\d+) +(\d+) +(\d+) +(\d+) +(\d+)", text, re.M)
    assert len(rows) == 24
    return [sum(int(row[i]) for row in rows) for i in range(5)]


def count(pairs):
    """{name: (how many, bytes)} of (name, bytes)."""
    found = {}
    for name, size in pairs:
        n, total = found.get(name, (0, 0))
        found[name] = (n + 1, total + size)
    return found


def domains(pairs):
    return count((name.split("@")[1], size) for name, size in pairs)


def check_report(report, received, delivered):
    """`received` and `delivered` are (address, bytes) of each message and delivery."""
    assert grand_totals(report) == {
        "received": len(received), "delivered": len(delivered), "forwarded": 0, "deferred": 1,
        "deferrals": 2, "bounced": 1, "rejected": 4, "reject warnings": 0, "held": 0,
        "discarded": 0, "bytes received": sum(n for _, n in received),
        "bytes delivered": sum(n for _, n in delivered), "senders": len(count(received)),
        "sending hosts/domains": len(domains(received)), "recipients": len(count(delivered)),
        "recipient hosts/domains": len(domains(delivered))}
    assert hours(report) == [len(received), len(delivered), 2, 1, 4]
    for title, pairs in (("Senders", received), ("Recipients", delivered)):
        both = count(pairs)
        assert table(report, f"{title} by message count") == {k: (n,) for k, (n, _) in both.items()}
        assert table(report, f"{title} by message size") == {k: (b,) for k, (_, b) in both.items()}
    assert table(report, "Host/Domain Summary: Messages Received") == domains(received)
    sites = table(report, "Host/Domain Summary: Message Delivery")
    assert sites == {k: (*v, 2 if k == "dst.test" else 0) for k, v in domains(delivered).items()}
    for words in (r"message deferral detail\n-+\n  smtp \(total: 2\)\n +2   4\.2\.1 mailbox busy ",
                  r"message bounce detail \(by relay\)\n-+\n  127\.0\.0\.1\[127\.0\.0\.1\]:\d+ "
                  r"\(total: 1\)\n +1   5\.1\.1 no such user ",
                  r"message reject detail\n-+\n  RCPT\n    Relay access denied \(total: 4\)\n"
                  r" +4   127\.0\.0\.7\n", "Warnings: none", "Fatal Errors: none", "Panics: none"):
        assert re.search(words, report), words


def test_pflogsumm_is_exactly_right(place):
    """Known events, and each number of the report."""
    closed, local = free_port(), Local(place, compatible_log_names="yes")
    p, sink = local.postern, local.sink
    p.master_cf += f"127.0.0.1:{closed} inet n - y - 1 smtpd\n  -o mynetworks=192.0.2.0/24\n"
    p.write_config(mynetworks="127.0.0.0/8")
    with local:
        sink.replies = {"gone@dst.test": "550 5.1.1 no such user",
                        "busy@dst.test": "450 4.2.1 mailbox busy"}
        for sender, messages in {"a@one.test": 5, "b@two.test": 3, "c@two.test": 1}.items():
            for i in range(messages):
                p.send(sender, ["x@dst.test", f"{i}@other.test"], BODY + b"-" * 100 * i + b"\r\n")
        p.send("a@one.test", ["gone@dst.test", "busy@dst.test", "x@dst.test"], BODY)
        local.tools.out("printf 'Subject: u\\n\\nhi\\n' | sendmail -f u@local.test x@dst.test")
        for i in range(4):
            talk(closed, "127.0.0.7", [b"EHLO c.test\r\n", b"MAIL FROM:<s@spam.test>\r\n",
                                       b"RCPT TO:<v%d@dst.test>\r\n" % i], b"QUIT\r\n")
        wait_until(lambda: deferred(p), 20, "the deferred message")
        p.ctl("queue", "flush")     # defers the same recipient again
        for words, times in (("status=deferred", 2), (": removed", 11),
                             ("disconnect from unknown[127.0.0.7]", 4)):
            wait_until(lambda: p.log().count(words) == times, 20, f"{times} of {words}")
        accepted = {e["id"]: e for e in p.events() if e["event"] == "accepted"}
        sizes = {id_: e["size"] for id_, e in accepted.items()}
        notice = next(e["notice"] for e in p.events() if e["event"] == "notice")
        sizes[notice] = int(re.search(rf"{notice}: from=<>, size=(\d+)", p.log())[1])
        delivered = [(e["to"], sizes[e["id"]]) for e in p.events() if e["event"] == "delivered"]
        assert len(accepted) == 11 and len(delivered) == 9 * 2 + 3
        report = subprocess.run(["pflogsumm", p.path("log")], text=True, capture_output=True,
                                check=True, timeout=60).stdout
        print(report)
        check_report(report, [(e["from"], e["size"]) for e in accepted.values()], delivered)


# ---- the queue as others see it --------------------------------------------------------

@pytest.fixture
def waiting(place):
    """A relay with three messages that wait, one of them held; each has two recipients."""
    with Sink() as sink, Postern(os.path.join(place, "relay"), compatible_log_names="yes",
                                 relayhost=f"[127.0.0.1]:{sink.port}") as p:
        sink.replies = lambda address: "450 4.2.1 later" if "wait" in address else None
        p.tools = Tools(place, p)
        p.ids = [p.send(f"s{i}@src.test" if i else "", [f"wait{i}@x.test", "wait@y.test"], BODY)
                 for i in range(3)]
        wait_until(lambda: p.log().count("status=deferred") == 6, 20, "six deferrals")
        p.tools.run(f"postsuper -h {p.ids[1]}")
        wait_until(lambda: [e["queue_name"] for e in entries(p)]
                   == ["deferred", "hold", "deferred"], 20, "one on hold, two deferred")
        yield p


@needs_root
@pytest.mark.parametrize("option", ("-p", "-j"))
def test_debians_postqueue_prints_what_ours_prints(place, waiting, option):
    etc = os.path.join(place, "etc")
    write_etc(etc, Postfix.users, Postfix.groups)
    write_file(etc, "postfix/main.cf", (
        "compatibility_level = 3.6\nmyhostname = relay.test\nenable_long_queue_ids = yes\n"
        f"queue_directory = {waiting.path('spool')}\n"))
    script = f"{laid_over(etc, 'postfix')}TZ=UTC exec /usr/sbin/postqueue {option}"
    theirs = subprocess.run(["unshare", "--mount", "--propagation", "slave", "sh", "-c", script],
                            capture_output=True, text=True, timeout=60, check=False)
    assert (theirs.returncode, theirs.stderr) == (0, "")
    assert theirs.stdout == waiting.tools.out(f"postqueue {option}")
    assert all(id_ in theirs.stdout for id_ in waiting.ids)


class Exporter:
    """The Prometheus exporter for Postfix, reading log and queue of a relay."""

    def __init__(self, p):
        self.port = free_port()
        self.process = subprocess.Popen(
            ["prometheus-postfix-exporter", f"--web.listen-address=127.0.0.1:{self.port}",
             f"--postfix.showq_path={p.path('spool/public/showq')}",
             f"--postfix.logfile_path={p.path('log')}"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def metrics(self):
        """{"postfix_up{...}": 1.0, ...}; empty while it does not answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=20) as f:
                text = f.read().decode()
        except OSError:
            return {}
        return {name: float(value) for name, value in
                re.findall(r"^(postfix_\S+?(?:\{[^}]*\})?) (\S+)$", text, re.M)}


def test_the_prometheus_exporter_reads_queue_and_log(waiting):
    p = waiting
    with Exporter(p) as exporter:
        def connects():
            with p.client() as c:   # until it has found the end of the log
                c.noop()
            return exporter.metrics().get("postfix_smtpd_connects_total", 0) > 0
        wait_until(connects, 30, "a line of the log in the metrics")
        def settled():
            return (exporter.metrics()["postfix_smtpd_disconnects_total"]
                    == exporter.metrics()["postfix_smtpd_connects_total"])
        wait_until(settled, 20, "the last line")
        before = exporter.metrics()
        for i in range(3):
            p.send("a@src.test", ["r@x.test"] if i else ["r@x.test", "wait@x.test"], BODY)
        wait_until(lambda: p.log().count("removed") == 2, 20, "two deliveries")
        wait_until(lambda: p.log().count("status=deferred") == 7, 20, "a deferral")
        wait_until(lambda: exporter.metrics()["postfix_qmgr_messages_removed_total"]
                   - before["postfix_qmgr_messages_removed_total"] == 2, 20, "the last line")
        wait_until(settled, 20, "the last line of smtpd")
        after = exporter.metrics()
        change = {k: after[k] - before.get(k, 0) for k in after if after[k] != before.get(k, 0)}
        path = p.path("spool/public/showq")
        assert after[f'postfix_up{{path="{path}"}}'] == 1
        assert after['postfix_showq_message_size_bytes_count{queue="deferred"}'] == 3
        assert after['postfix_showq_message_size_bytes_count{queue="hold"}'] == 1
        for name, count_ in (("postfix_smtpd_connects_total", 3),
                             ("postfix_smtpd_disconnects_total", 3),
                             ("postfix_cleanup_messages_processed_total", 3),
                             ("postfix_qmgr_messages_inserted_receipients_sum", 4),
                             ("postfix_qmgr_messages_inserted_size_bytes_count", 3),
                             ("postfix_smtp_status_deferred", 1),
                             # the four times of four attempts; it does not name the stage
                             ('postfix_smtp_delivery_delay_seconds_count{stage=""}', 16)):
            assert change.get(name, 0) == count_, f"{name}: {sorted(change.items())}"
        assert not any("unsupported" in name for name in change), change.keys()


# ---- what operators type ---------------------------------------------------------------

def one_liners():
    """{title: command} of the operator's guide."""
    with open(os.path.join(ROOT, "doc/operators-guide.md"), encoding="utf-8") as f:
        text = re.search(r"<!-- one-liners \(begin\) -->\n(.*?)<!-- one-liners \(end\)", f.read(),
                         re.S)[1]
    return dict(re.findall(r"^    # (.*)\n    (.*)\n", text, re.M))


class Shell:
    """Runs one-liners on a queue of four messages, which is made anew for each."""
    SENT = (("", ["user@example.com"]), ("bulk@customer.example", ["user@example.com"]),
            ("bulk@customer.example", ["other@example.net"]),
            ("a@src.example", ["user@example.com", "second@example.org"]))

    def __init__(self, p):
        self.p, self.ids = p, []

    def fill(self):
        """Four messages that wait for their second attempt, and nothing else."""
        self.p.tools.run("postsuper -d ALL")
        wait_until(lambda: not entries(self.p), 20, "an empty queue")
        self.ids = [self.p.send(sender, to, BODY) for sender, to in self.SENT]
        wait_until(lambda: len(deferred(self.p)) == 4 and all(
            "delay_reason" in r for m in deferred(self.p) for r in m["recipients"]), 20,
            "four deferred messages")

    def run(self, command, number=0):
        """Standard output and error; ID is that of message `number`."""
        done = self.p.tools.run(command.replace("ID", self.ids[number]))
        assert done.returncode == 0, (command, done.stderr)
        return done.stdout, done.stderr

    def left(self):
        """Numbers of the messages in the queue."""
        return [self.ids.index(m["queue_id"]) for m in entries(self.p)]

    def held(self):
        return [self.ids.index(m["queue_id"]) for m in entries(self.p) if m["queue_name"] == "hold"]


def counts(text):
    """Lines of `uniq -c`: {"name": count}."""
    return {name: int(n) for n, name in re.findall(r"^ *(\d+) (.*)$", text, re.M)}


# title: what the command prints
SHOWN = {
    "how many messages wait": lambda out: re.fullmatch(r"-- 0 Kbytes in 4 Requests\.\n", out),
    "how many, as a number for monitoring": lambda out: out == "4\n",
    "how many of each sender": lambda out: counts(out) == {
        "bulk@customer.example": 2, "MAILER-DAEMON": 1, "a@src.example": 1},
    "why mail waits, the most frequent reason first": lambda out: list(counts(out).values()) == [5]
                                                      and "not now" in out,
    "where it waits for": lambda out: counts(out) == {
        "example.com": 3, "example.net": 1, "example.org": 1} and out.split()[0] == "3",
    "the same by age, as qshape has it: up to 5 minutes, an hour, a day, older":
        lambda out: counts(out) == {"example.com 5m": 3, "example.net 5m": 1, "example.org 5m": 1},
    "messages that are on hold": lambda out: out == "",
    "look at a message": lambda out: "\nrecipient: user@example.com\n" in out
                         and "\nSubject: surface\n\nhello\n" in out,
    "the body of the oldest": lambda out: out == "\nhello\n",
}
# title: the messages that are left
DELETED = {
    "delete one message": [1, 2, 3],
    "delete what goes to one address and to no other": [2, 3],
    "delete whatever has to do with an address": [2],
    "delete what one sender has sent": [0, 3],
    "delete notices": [1, 2, 3],
    "delete what is older than a day": [0, 1, 2, 3],
    "delete all that is deferred": [],
    "delete everything": [],
}


def check_flushes(shell, command):
    """Each part tries what it names once more: a message, those with a recipient in a
    domain (with their other recipients, as with Postfix), all."""
    def attempts():
        return re.findall(r"to=<(\S+)>, .* status=deferred", shell.p.log())
    everybody = [to for _, recipients in shell.SENT for to in recipients]
    named = ([everybody[0]], [to for to in everybody if to != "other@example.net"], everybody)
    for part, expected in zip(command.split("; "), named):
        before = len(attempts())
        shell.run(part)
        wait_until(lambda n=before + len(expected): len(attempts()) >= n, 20, part)
        assert sorted(attempts()[before:]) == sorted(expected)


def check_holds(shell, command):
    hold, release = command.split("; ")
    assert shell.run(hold)[1] == "postsuper: Placed on hold: 4 messages\n"
    assert shell.held() == [0, 1, 2, 3]
    assert shell.run(release)[1] == "postsuper: Released from hold: 4 messages\n"
    assert shell.held() == []


def check_hold_of_a_sender(shell, command):
    shell.run(command)
    assert shell.held() == [1, 2]
    out, _ = shell.run(one_liners()["messages that are on hold"])
    assert out.split() == [shell.ids[1], shell.ids[2]]


def check_requeue(shell, command):
    before = shell.p.log().count("status=deferred")
    assert shell.run(command)[1] == "postsuper: Requeued: 4 messages\n"
    wait_until(lambda: shell.p.log().count("status=deferred") == before + 5, 20, "attempts")
    assert shell.left() == [0, 1, 2, 3]


OTHERS = {
    "try one message, one destination, everything again": check_flushes,
    "hold everything, release it": check_holds,
    "hold what one sender has sent": check_hold_of_a_sender,
    "look up all destinations anew": check_requeue,
}


@pytest.fixture(scope="module")
def shell(tmp_path_factory):
    place = str(tmp_path_factory.mktemp("shell"))
    os.chmod(place, 0o755)
    # no server that refuses everything: after a while it would be left alone
    write_file(place, "routes", "".join(f"example.{d} retry:4.2.1 not now\n"
                                        for d in ("com", "net", "org")))
    with Postern(place, transport_maps=f"texthash:{place}/routes") as p:
        p.tools = Tools(place, p)
        wait_until(lambda: takes_mail(p), 20, "an accepted sender")
        yield Shell(p)


@pytest.mark.parametrize("title", one_liners())
def test_one_liners_of_the_guide(shell, title):
    command = one_liners()[title]
    shell.fill()
    if title in SHOWN:
        out, err = shell.run(command)
        assert SHOWN[title](out) and err == "", (out, err)
        assert shell.left() == [0, 1, 2, 3]
    elif title in DELETED:
        gone = 4 - len(DELETED[title])
        _, err = shell.run(command)
        words = f"postsuper: Deleted: {gone} message{'' if gone == 1 else 's'}\n" if gone else ""
        assert err.endswith(words) and err.count("removed") in (gone, 0), err
        wait_until(lambda: shell.left() == DELETED[title], 20, "the deletion")
    else:
        OTHERS[title](shell, command)


def test_there_are_at_least_ten_one_liners():
    assert len(one_liners()) >= 10
    assert {*SHOWN, *DELETED, *OTHERS} == {*one_liners()}, "each has its check"
