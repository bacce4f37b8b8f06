"""postern check, and master at its start: what one finds the other refuses."""
import os
import pty
import re
import shutil
import subprocess
import termios

import pytest

from postern import BIN, Postern, free_port, in_namespace, wait_until
from sink import Sink


def start_by_command(p):
    argv = [os.path.join(BIN, "postern"), "-c", p.directory, "start"]
    if os.getuid() == 0:
        argv = in_namespace(p.directory, argv)
    return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=90, check=False)


def refused(place, words, prepare=None, master_cf=None, **config):
    """check says so, and the start fails at once with the same words."""
    p = Postern(place, start=False, master_cf=master_cf, **config)
    if prepare:
        prepare(p)
    found = p.ctl("check", check=False)
    assert found.returncode == 1 and re.search(r"^error: .*" + words, found.stdout, re.M), \
        found.stdout
    assert "error: fatal" not in found.stdout
    done = start_by_command(p)
    assert done.returncode == 1 and re.search(words, done.stderr), (done.stdout, done.stderr)
    assert not os.path.exists(p.path("run/master.pid"))


@pytest.mark.parametrize("config,words", [
    ({"relayhost": "[127.0.0.1"}, r"main.cf:\d+: relayhost: \[127.0.0.1: is no next hop"),
    ({"relayhost": "relay.test:99999"}, "relayhost: relay.test:99999: is no next hop"),
    ({"defer_transports": "smpt"}, "defer_transports: smpt: is not a transport"),
    ({"smtp_discard_ehlo_keywords": "chunkng"}, "chunkng: is not an EHLO keyword"),
    ({"smtpd_discard_ehlo_keywords": "dsn, foo"}, "foo: is not an EHLO keyword"),
    ({"double_bounce_recipient": "postmaster"}, "double_bounce_recipient: postmaster: is not an"),
    ({"notice_from": "Mail system"}, "notice_from: Mail system: is not an address"),
    ({"notice_contact": "x@@y"}, "notice_contact: x@@y: is not an address"),
    ({"maillog_file": "/nonexistent/log"}, "maillog_file = /nonexistent/log: "),
    ({"event_log_file": "/nonexistent/events"}, "event_log_file = /nonexistent/events: "),
    ({"event_log_file": "/"}, "event_log_file = /: cannot open: Is a directory"),
    ({"resolver_trust_anchor": "/etc/hostname"}, "resolver_trust_anchor: /etc/hostname: has no DS"),
])
def test_B84_values_that_would_not_do_what_they_say(place, config, words):
    refused(place, words, **config)


def test_B84_a_socket_of_our_own_is_not_for_smtpd(place):
    refused(place, "master.cf:2: Postern has a socket accounts of its own",
            master_cf=f"127.0.0.1:{free_port()} inet n - y - 1 smtpd\n"
                      "accounts unix n - y - 1 smtpd\n")


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_B84_a_port_for_all_addresses_and_one_of_them(place, order):
    port = free_port()
    lines = [f"127.0.0.1:{port} inet n - y - 1 smtpd\n", f"{port} inet n - y - 1 smtpd\n"]
    refused(place, "master.cf:2: .* cannot be listened on beside .* of master.cf:1",
            master_cf=lines[order[0]] + lines[order[1]])


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives directories away")
def test_a_directory_with_others_files_is_no_spool(place):
    def prepare(p):
        os.makedirs(p.path("home"))
        open(p.path("home/letter"), "w", encoding="utf-8").close()
    refused(place, "holds other files and belongs to another user", prepare,
            queue_directory="home")


def test_good_values_of_these_are_taken(place):
    for value in ("[127.0.0.1]:25", "example.net", "[::1]:2525", "[IPv6:::1]", "example.net:submission",
                  "a.test, [b.test]:26", "müller.example", ""):
        p = Postern(place, start=False, relayhost=value, defer_transports="smtp, lmtp",
                    smtp_discard_ehlo_keywords="CHUNKING silent-discard etrn",
                    notice_from="The mail system <mailer-daemon@relay.test>",
                    double_bounce_recipient="postmaster@relay.test",
                    event_log_file="new.json")
        assert "error" not in p.ctl("check"), value
        assert not os.path.exists(p.path("new.json"))
        shutil.rmtree(p.directory)


def test_an_address_to_send_from_that_is_not_ours_is_told_with_its_line(place):
    """At the check, the start and a reload; mail is taken all the same, and waits."""
    foreign = r"main.cf:\d+: smtp_bind_address = 192\.0\.2\.9 is not an address of this machine"
    p = Postern(place, start=False, smtp_bind_address="192.0.2.9",
                smtp_bind_address6="::1", relayhost=f"[127.0.0.1]:{free_port()}")
    line = len(p.config) - 2
    assert re.search(rf"^warning: .*{foreign}", p.ctl("check"), re.M)
    assert f"main.cf:{line}: smtp_bind_address = " in p.ctl("check")
    assert "smtp_bind_address6 = " not in p.ctl("check")
    with p:
        p.start()
        p.wait_log("warning: .*" + foreign)
        p.send("a@src.test", ["b@dst.test"], b"Subject: x\r\n\r\nx\r\n")
        p.wait_log("status=deferred .192.0.2.9 is not an address of this machine")
        p.write_config(smtp_bind_address="127.0.0.1", smtp_bind_address6="2001:db8::9")
        p.ctl("reload")
        p.wait_log("warning: .*smtp_bind_address6 = 2001:db8::9 is not an address")
        assert "smtp_bind_address = " not in p.ctl("check")


def test_a_queue_directory_with_a_long_path_can_be_asked(place):
    name = "q" * 120
    with Postern(place, queue_directory=name) as p:
        assert len(p.path(name, "public/control")) > 107
        assert "is running" in p.ctl("status")
        assert p.ctl("queue", "list") == ""


def test_reload_says_what_is_wrong_and_opens_logs_anew(place):
    with Sink() as sink, Postern(place, relayhost=f"[127.0.0.1]:{sink.port}") as p:
        os.rename(p.path("log"), p.path("log.1"))
        os.rename(p.path("events.json"), p.path("events.1"))
        p.write_config(transport_maps="texthash:/nonexistent")
        done = p.ctl("reload", check=False)
        assert done.returncode == 1 and done.stdout == ""
        assert done.stderr == "postern: transport_maps: /nonexistent: No such file or directory; " \
                              "the old configuration stays in use\n"
        wait_until(lambda: os.path.exists(p.path("log")), 20, "a new log")
        p.wait_log("error: reload: transport_maps: /nonexistent: No such file or directory")
        queue_id = p.send("a@src.test", ["b@dst.test"], b"Subject: x\r\n\r\nx\r\n")
        sink.wait(1)
        p.wait_log(f"{queue_id}: removed")
        with open(p.path("log.1"), encoding="utf-8") as f:
            assert queue_id not in f.read()
        assert any(e["id"] == queue_id for e in p.events())
        p.write_config(transport_maps="")
        assert "reads its configuration again" in p.ctl("reload")
        p.wait_log("reload: configuration .* is in effect")


def on_terminal(p, columns, *args):
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, columns))
    subprocess.run([os.path.join(BIN, "postern"), "-c", p.directory, *args], stdout=theirs,
                   env={"TERM": "xterm", "NO_COLOR": "1"}, check=True, timeout=60)
    os.close(theirs)
    text = os.read(ours, 65536).decode().replace("\r", "")
    os.close(ours)
    return text


def test_a_narrow_terminal_shows_the_whole_reason(place):
    down = free_port()
    with Postern(place, relayhost=f"[127.0.0.1]:{down}") as p:
        for i in range(2):
            p.send("sender@customer.test", [f"recipient{i}@destination.test"], b"\r\nx\r\n")
            wait_until(lambda n=i: p.ctl("queue", "list").count("refused") == n + 1, 20, "a refusal")
        why = f"connect to 127.0.0.1[127.0.0.1]:{down}: Connection refused"
        for columns in (80, 300):
            text = on_terminal(p, columns, "queue", "list")
            assert why in text
            assert (f"\n    {why}\n" in text) == (columns == 80)
        assert on_terminal(p, 300, "site", "show", "destination.test").count("no limit") == 1


def test_an_address_that_is_not_ours_is_found_while_it_runs(place):
    with Postern(place) as p:
        assert "Postern is running, as process" in p.ctl("check")
        p.master_cf += f"203.0.113.9:{free_port()} inet n - y - 1 smtpd\n"
        p.write_config()
        done = p.ctl("check", check=False)
        assert done.returncode == 1
        assert "error: master.cf:2: 203.0.113.9 is not an address of this host" in done.stdout


def test_option_c_without_its_directory(place):
    done = subprocess.run([os.path.join(BIN, "postern"), "-c"], capture_output=True, text=True,
                          timeout=60, check=False, cwd=place)
    assert done.returncode == 2 and done.stderr.startswith("postern: -c needs a directory")


def test_what_was_just_taken_counts_as_the_last_minutes(place):
    with Sink() as sink, Postern(place, relayhost=f"[127.0.0.1]:{sink.port}") as p:
        for _ in range(3):
            p.send("a@src.test", ["b@dst.test"], b"Subject: x\r\n\r\nx\r\n")
        sink.wait(3)
        wait_until(lambda: "last minute: 3 accepted, 3 delivered" in p.ctl("status"), 20, "3 and 3")


def test_a_provider_that_there_is_not_is_warned_of(place):
    """In sources.conf: what is said for it would silently never hold."""
    p = Postern(place, start=False, source_config_file=os.path.join(place, "sources.conf"),
                provider_config_file=os.path.join(place, "providers.conf"))
    with open(p.path("providers.conf"), "w", encoding="utf-8") as f:
        f.write('provider gmail { mx = {".google.test"} }\n')
    with open(p.path("sources.conf"), "w", encoding="utf-8") as f:
        f.write('source a { ipv4 = 127.0.0.11 provider Gmail { daily_cap = 5 } }\n'
                'source b { ipv4 = 127.0.0.12 provider gmial { daily_cap = 5 } }\n')
    found = p.ctl("check", check=False).stdout
    warned = [line for line in found.splitlines() if "there is no provider" in line]
    assert len(warned) == 1, found
    assert re.search(r"^warning: .*sources.conf:2: source b: there is no provider gmial in .*providers.conf",
                     warned[0])
