"""The postern command, against a whole relay whose next hop is down."""
import json
import os
import pty
import random
import re
import socket
import subprocess
import termios
import threading

import pytest

from postern import BIN, Postern, free_port, wait_until
from sink import Sink

CONTENT = b"Subject: ctl\r\nMessage-ID: <ctl.1@src.test>\r\n\r\nfirst\r\n.second\r\n"


def wait_until_it_takes_mail(p):
    """A greeting may come before the queue manager is there: then MAIL gets 451."""
    def takes_mail():
        with p.client() as c:
            c.ehlo()
            return c.mail("probe@src.test")[0] == 250
    wait_until(takes_mail, 20, "an accepted sender")


@pytest.fixture
def stuck(place):
    """A relay with four messages that cannot be delivered for now."""
    with Postern(place, relayhost=f"[127.0.0.1]:{free_port()}") as p:
        wait_until_it_takes_mail(p)
        p.ids = [p.send(f"s{i}@src.test", [f"b{i}@{'odd' if i % 2 else 'even'}.test"], CONTENT)
                 for i in range(4)]
        wait_until(lambda: len(deferred(p)) == 4, 20, "four deferred messages")
        yield p


def deferred(p):
    return rows(p, "queue", "list", "--status", "deferred")


def rows(p, *args):
    """The rows of a table, each a dict by the titles."""
    lines = p.ctl(*args).splitlines()
    if not lines:
        return []
    titles = lines[0].split("\t")
    return [dict(zip(titles, line.split("\t"))) for line in lines[1:] if "\t" in line]


def objects(p, *args):
    return [json.loads(line) for line in p.ctl(*args, "--json").splitlines()]


def test_list_in_columns_and_json(stuck):
    table = rows(stuck, "queue", "list")
    assert [r["ID"] for r in table] == stuck.ids
    assert [r["RECIPIENT"] for r in table] == \
        ["b0@even.test", "b1@odd.test", "b2@even.test", "b3@odd.test"]
    assert all("refused" in r["REPLY"] and r["SENDER"].endswith("@src.test") for r in table)
    listed = objects(stuck, "queue", "list")
    assert [m["id"] for m in listed] == stuck.ids
    assert listed[0]["recipients"][0]["address"] == "b0@even.test"
    assert listed[0]["status"] == "deferred" and listed[0]["next"] > listed[0]["arrival"]


@pytest.mark.parametrize("selector, expected", [
    (["--recipient", "@odd.test"], [1, 3]),
    (["--sender", "S2@src.TEST"], [2]),
    (["--site", "even.*"], [0, 2]),
    (["--reply", "connection refused"], [0, 1, 2, 3]),
    (["--reply", "mailbox full"], []),
    (["--older-than", "1h"], []),
    (["--newer-than", "1h", "--sender", "s3@*"], [3]),
    (["--status", "hold"], []),
    (["--all"], [0, 1, 2, 3]),
])
def test_selectors(stuck, selector, expected):
    assert [r["ID"] for r in rows(stuck, "queue", "list", *selector)] == \
        [stuck.ids[i] for i in expected]


def test_selection_by_id_and_from_standard_input(stuck):
    assert [r["ID"] for r in rows(stuck, "queue", "list", stuck.ids[2])] == [stuck.ids[2]]
    done = subprocess.run([os.path.join(BIN, "postern"), "-c", stuck.directory, "queue", "hold",
                           "-"], input="\n".join(stuck.ids[:2]), text=True, capture_output=True,
                          check=True)
    assert done.stdout == "2 messages held.\n"
    assert [r["ID"] for r in rows(stuck, "queue", "list", "--status", "hold")] == stuck.ids[:2]
    listed = stuck.ctl("queue", "list", "--recipient", "b3@*")
    done = subprocess.run([os.path.join(BIN, "postern"), "-c", stuck.directory, "queue", "hold",
                           "-"], input=listed, text=True, capture_output=True, check=True)
    assert done.stdout == "1 message held.\n"
    nothing = stuck.ctl("queue", "list", "--recipient", "nobody@*", check=False)
    assert (nothing.stdout, nothing.stderr) == ("", "No messages.\n")
    missing = stuck.ctl("queue", "hold", "0000000000z0000", check=False)
    assert missing.returncode == 5 and "no message 0000000000z0000" in missing.stderr


def test_an_empty_selector_is_refused(stuck):
    for option in ("--recipient", "--sender", "--site", "--reply"):
        done = stuck.ctl("queue", "delete", "--older-than", "1s", option, "", "--yes", check=False)
        assert done.returncode == 2 and f"{option} is empty" in done.stderr
    assert len(rows(stuck, "queue", "list")) == 4


def test_a_server_that_hangs_up_at_once_is_heard(place):
    """As qmgr does when it has too many clients; no SIGPIPE in between."""
    p = Postern(place, start=False)
    os.makedirs(p.path("spool/public"))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(p.path("spool/public/control"))
        listener.listen()

        def refuse():
            for _ in range(30):
                c, _ = listener.accept()
                c.sendall(b'{"error":"Too many clients."}\n')
                c.close()
        thread = threading.Thread(target=refuse)
        thread.start()
        done = [p.ctl("queue", "list", check=False) for _ in range(30)]
        thread.join()
    assert all((d.returncode, d.stderr) == (1, "postern: Too many clients.\n") for d in done), done


def test_hold_keeps_and_release_lets_go(place):
    port = free_port()
    with Postern(place, relayhost=f"[127.0.0.1]:{port}") as p:
        wait_until_it_takes_mail(p)
        held = p.send("a@src.test", ["held@dst.test"], CONTENT)
        other = p.send("a@src.test", ["other@dst.test"], CONTENT)
        wait_until(lambda: len(deferred(p)) == 2, 20, "two deferred messages")
        p.ctl("queue", "hold", held)
        with Sink(port) as sink:
            p.ctl("queue", "flush")
            assert sink.wait(1)[0].recipients == ["other@dst.test"]
            p.wait_log(f"{other}: removed$")
            assert [r["STATUS"] for r in rows(p, "queue", "list")] == ["hold"]
            p.ctl("queue", "release", held)
            assert sink.wait(2)[1].recipients == ["held@dst.test"]
            p.wait_log(f"{held}: removed$")


def test_dry_run_changes_nothing(stuck):
    out = stuck.ctl("queue", "delete", "--all", "--dry-run")
    assert "4 messages would be deleted." in out and stuck.ids[0] in out
    assert len(deferred(stuck)) == 4


def test_delete_of_several_is_confirmed(stuck):
    refused = stuck.ctl("queue", "delete", "--recipient", "@odd.test", check=False)
    assert refused.returncode == 2 and "2 messages would be deleted" in refused.stderr
    assert len(deferred(stuck)) == 4
    assert stuck.ctl("queue", "delete", stuck.ids[0]) == "1 message deleted.\n"
    assert stuck.ctl("queue", "delete", "--recipient", "@odd.test", "--yes") == \
        "2 messages deleted.\n"
    assert [r["ID"] for r in rows(stuck, "queue", "list")] == [stuck.ids[2]]
    # deleted is deleted: no notice
    stuck.wait_log(f"{stuck.ids[0]}: removed$")
    assert "notification" not in stuck.log()


def test_delete_and_undelete(stuck):
    first, second = stuck.ids[:2]
    stuck.ctl("queue", "delete", first, second, "--yes")
    kept = rows(stuck, "queue", "list", "--deleted")
    assert [r["ID"] for r in kept] == [first, second]
    assert re.search(r"^deleted: +2 messages, 8.0K;", stuck.ctl("status"), re.M)
    assert {r["STATUS"] for r in kept} == {"deleted"}
    assert all(re.fullmatch(r"in (23h59m|1d00h)", r["PURGED"]) for r in kept)
    assert "Subject: ctl" in stuck.ctl("message", "show", first)
    gone = stuck.ctl("queue", "undelete", stuck.ids[2], check=False)
    assert gone.returncode == 5 and "no deleted message" in gone.stderr
    out = stuck.ctl("queue", "undelete", "--sender", "s0@src.test", "--dry-run")
    assert "1 message would be brought back." in out and first in out
    assert stuck.ctl("queue", "undelete", "--sender", "s0@src.test") == "1 message brought back.\n"
    assert [r["ID"] for r in rows(stuck, "queue", "list", "--deleted")] == [second]
    assert {r["ID"] for r in rows(stuck, "queue", "list")} == {first, *stuck.ids[2:]}
    assert stuck.ctl("queue", "delete", "--deleted", "--all") == "1 message purged.\n"
    assert rows(stuck, "queue", "list", "--deleted") == []
    assert stuck.ctl("queue", "flush", "--deleted", check=False).returncode == 2


def test_postsuper_deletes_what_can_be_brought_back(stuck):
    subprocess.run(["postsuper", "-c", stuck.directory, "-d", "ALL"], check=True,
                   executable=os.path.join(BIN, "postern"), stderr=subprocess.PIPE)
    assert rows(stuck, "queue", "list") == []
    assert stuck.ctl("queue", "undelete", "--all") == "4 messages brought back.\n"
    assert len(rows(stuck, "queue", "list")) == 4


def test_selection_by_size_attempts_and_account(stuck):
    big = stuck.send("big@src.test", ["b9@odd.test"], CONTENT + b"0123456789\r\n" * 3000)
    wait_until(lambda: len(deferred(stuck)) == 5, 20, "five deferred messages")

    def ids(*selectors):
        return [r["ID"] for r in rows(stuck, "queue", "list", *selectors)]
    assert ids("--larger-than", "20k") == [big] and ids("--smaller-than", "20K") == stuck.ids
    assert ids("--larger-than", "20k", "--site", "even.test") == []
    assert len(ids("--min-attempts", "1")) == 5 and ids("--min-attempts", "2") == []
    assert ids("--max-attempts", "0") == [] and ids("--account", "*") == stuck.ids + [big]
    assert ids("--account", "x") == [] and ids("--source", "192.0.2.1") == []
    for option in ("--larger-than", "--max-attempts"):
        assert stuck.ctl("queue", "list", option, "many", check=False).returncode == 2
    done = stuck.ctl("queue", "delete", "--larger-than", "20k", "--json")
    sums = json.loads(done.splitlines()[-1])
    assert sums["changed"] == 1 and sums["recipients"] == 1 and sums["bytes"] > 36000


def test_counts_are_told_before_it_is_done(stuck):
    """On a terminal; the answer n changes nothing."""
    argv = [os.path.join(BIN, "postern"), "-c", stuck.directory, "queue", "delete", "--all"]
    master, slave = pty.openpty()
    done = subprocess.Popen(argv, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    text = b""
    while b"[y/N]" not in text:
        text += os.read(master, 4096)
    assert b"4 messages to 4 recipients (" in text and b"for 1d00h 'postern queue undelete'" in text
    os.write(master, b"n\n")
    assert done.wait(20) == 1
    os.close(master)
    assert len(rows(stuck, "queue", "list")) == 4


def test_expire_returns_to_the_sender(stuck):
    stuck.ctl("queue", "expire", stuck.ids[0])
    stuck.wait_log(f"{stuck.ids[0]}: from=<s0@src.test>, status=expired, returned to sender")
    stuck.wait_log(f"{stuck.ids[0]}: sender non-delivery notification: ")
    notice = [m for m in objects(stuck, "queue", "list", "--recipient", "s0@src.test")
              if "recipients" in m]
    assert notice[0]["sender"] == "" and notice[0]["notice"]
    raw = stuck.ctl("message", "show", notice[0]["id"], "--raw")
    assert "multipart/report" in raw and "b0@even.test" in raw


def test_no_selection_is_no_action(stuck):
    for action in ("hold", "release", "requeue", "expire", "delete"):
        done = stuck.ctl("queue", action, check=False)
        assert done.returncode == 2 and "say which messages" in done.stderr
    assert stuck.ctl("queue", "hold", "--older", "1h", check=False).returncode == 2
    assert len(deferred(stuck)) == 4


def test_summary(stuck):
    table = rows(stuck, "queue", "summary")
    assert {r["DOMAIN"]: r["RECIPIENTS"] for r in table} == {"odd.test": "2", "even.test": "2"}
    total = objects(stuck, "queue", "summary")[-1]
    assert total["messages"] == 4 and total["deferred"] == 4


def test_message_show(stuck):
    shown = stuck.ctl("message", "show", stuck.ids[1])
    assert "b1@odd.test" in shown and "Subject: ctl" in shown and ".second" not in shown
    body = subprocess.run([os.path.join(BIN, "postern"), "-c", stuck.directory, "message", "show",
                           stuck.ids[1], "--raw"], capture_output=True, check=True).stdout
    assert body.startswith(b"Received: ") and body.endswith(CONTENT)
    gone = stuck.ctl("message", "show", "0000000000z0000", check=False)
    assert gone.returncode == 5


@pytest.mark.parametrize("what", ["id", "<ctl.1@src.test>", "ctl.1@src.test", "b2@even.test"])
def test_trace(stuck, what):
    told = stuck.ctl("trace", stuck.ids[2] if what == "id" else what)
    mine = [line for line in told.splitlines() if stuck.ids[2] in line]
    assert re.search("accepted .*from=s2@src.test", mine[0])
    assert any("deferred" in line for line in mine)
    assert mine[-1].startswith("in the queue")
    if "@even" in what:
        assert stuck.ids[1] not in told


def test_trace_of_a_recipient_leaves_out_the_others(tmp_path):
    """Of an address: what became of it, not of the hundreds that got the same message."""
    with Postern(tmp_path / "p", relayhost=f"[127.0.0.1]:{free_port()}") as p:
        many = [f"r{i}@dst.test" for i in range(12)]
        p.send("list@src.test", many, b"Subject: x\r\n\r\nx\r\n")
        wait_until(lambda: [e["event"] for e in p.events()].count("deferred") == 12)
        told = p.ctl("trace", "R7@dst.test").splitlines()
        assert [line.split()[3] for line in told[:2]] == ["accepted", "deferred"] and len(told) == 3
        assert " to=r7@dst.test " in told[1] and " (and 2 more)" in told[0]
        assert told[2].startswith("in the queue") and " to=r7@dst.test " in told[2]
        for what in ("list@src.test", told[0].split()[2]):
            assert p.ctl("trace", what).count("deferred") == 24
        assert p.ctl("trace", "r7@dst.test", "--json").count('"event":"deferred"') == 1


def test_trace_of_the_unknown(stuck):
    done = stuck.ctl("trace", "nobody@nowhere.test", check=False)
    assert done.returncode == 5 and "knows of nobody@nowhere.test" in done.stderr


def test_site_show(stuck):
    site = objects(stuck, "site", "show", "odd.test")[0]["site"]
    assert site["nexthop"].startswith("[127.0.0.1]:")
    assert "127.0.0.1" in stuck.ctl("site", "show", "odd.test")


def test_status(stuck):
    text = stuck.ctl("status")
    for program in ("smtpd", "qmgr", "relay", "resolve", "bounce"):
        assert re.search(rf"\t{program}\t\d+\tready\t", text), text
    assert "4 messages" in text and "spool:       ok" in text


def test_a_terminal_gets_aligned_columns_and_colour(stuck):
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 120))
    done = subprocess.run([os.path.join(BIN, "postern"), "-c", stuck.directory, "queue", "list"],
                          stdout=theirs, env={"TERM": "xterm"}, check=True)
    os.close(theirs)
    text = os.read(ours, 65536).decode()
    os.close(ours)
    assert done.returncode == 0 and "\t" not in text and "\033[1m" in text
    lines = re.sub(r"\033\[\d*m", "", text).splitlines()
    reasons = [line for line in lines if line.startswith("    ")]
    assert reasons and all("Connection refused" in line for line in reasons)
    lines = [line for line in lines if not line.startswith("    ")]
    assert all(line.startswith(i) for line, i in zip(lines[1:], stuck.ids))
    columns = {line.index("s%d@src.test" % n) for n, line in enumerate(lines[1:5])}
    assert columns == {lines[0].index("SENDER")}
    assert all(len(line) <= 120 for line in lines)


def test_exit_statuses_and_one_sentence(stuck, place):
    assert stuck.ctl("nonsense", check=False).returncode == 2
    assert stuck.ctl("config", "nonsense", check=False).returncode == 5
    stuck.stop()
    for args in (("status",), ("queue", "list"), ("stop",), ("reload",)):
        done = stuck.ctl(*args, check=False)
        assert done.returncode == 3 and done.stderr.count("\n") == 1, done
        assert "not running" in done.stderr
    assert stuck.ctl("trace", "b2@even.test").count("deferred") >= 1  # the event log is there


def test_config(stuck):
    assert "myhostname = relay.test\n" in stuck.ctl("config", "-n")
    assert stuck.ctl("config", "--value", "smtpd_timeout") == "300s\n"
    assert "smtpd_timeout = 300s\n" in stuck.ctl("config", "-d")
    assert "smtpd_timeout" not in stuck.ctl("config", "-n")


def test_check_finds_what_is_wrong(place):
    with Postern(place, start=False) as p, socket.create_server(("127.0.0.1", p.port)):
        done = p.ctl("check", check=False)
        assert done.returncode == 1
        assert re.search(rf"error: .*port {p.port} on 127.0.0.1 is taken", done.stdout)
        p.write_config(smtpd_timeout="ten")
        done = p.ctl("check", check=False)
        assert done.returncode == 1 and "main.cf:" in done.stdout and "smtpd_timeout" in done.stdout
        p.write_config(smtpd_timeout="10s", program_directory="/nonexistent")
        assert "program /nonexistent/qmgr" in p.ctl("check", check=False).stdout
        os.chmod(p.path("main.cf"), 0o666)
        assert "may be written by others" in p.ctl("check", check=False).stdout


def test_start_stop(place):
    p = Postern(place, start=False)
    argv = [os.path.join(BIN, "postern"), "-c", p.directory, "start"]
    if os.getuid() == 0:
        from postern import write_accounts
        write_accounts(p.directory)
        script = ('mount --bind "$0/passwd" /etc/passwd && mount --bind "$0/group" /etc/group'
                  ' && exec "$@"')
        argv = ["unshare", "-m", "--propagation", "slave", "sh", "-c", script, p.directory, *argv]
    started = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
    try:
        assert "Postern is running" in started.stdout
        assert "running" in p.ctl("status")
        assert "already" in p.ctl("start")
        assert "log tells" in p.ctl("reload")
        p.wait_log("reload: configuration")
    finally:
        out = p.ctl("stop")
    assert out == "Postern has stopped.\n"
    assert p.ctl("status", check=False).returncode == 3


def test_B95_random_bytes_on_the_control_socket(stuck):
    dice = random.Random(95)
    clients = []
    for _ in range(40):
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(0.2)
        s.connect(stuck.path("spool/public/control"))
        clients.append(s)
        try:
            s.sendall(dice.randbytes(dice.randrange(1, 100000)))
        except OSError:
            pass
    for s in clients:
        s.close()
    assert wait_until(lambda: stuck.ctl("queue", "list", check=False).returncode == 0, 10,
                      "an answer")
    assert len(deferred(stuck)) == 4
    pids = stuck.pids("qmgr")
    assert len(pids) == 1

    assert f"\tqmgr\t{pids[0]}\tready\t" in stuck.ctl("status")


def test_a_client_that_does_not_read_stops_nobody(stuck):
    s = socket.socket(socket.AF_UNIX)
    s.connect(stuck.path("spool/public/control"))
    s.sendall(b'{"request":"queue.list","select":{"all":true}}\n' * 1000)
    assert len(deferred(stuck)) == 4
    s.close()
