"""master: what it refuses to start with, reload, restart, jails."""
import os
import signal
import socket
import subprocess

import pytest
from postern import BIN, Postern, free_port, wait_until

SERVICES = ("smtpd", "qmgr", "relay", "resolve", "bounce")
ROOT_ONLY = pytest.mark.skipif(os.getuid() != 0, reason="needs root")


@pytest.fixture
def relay(place):
    with Postern(place, relayhost="[127.0.0.1]:1") as p:
        p.wait_log(r"master\[\d+\]: ready: ")
        yield p


def run_master(p, *options):
    """master in the foreground with a relay's configuration, until it ends."""
    argv = [os.path.join(BIN, "master"), "-c", p.directory, *options]
    if os.getuid() == 0:
        script = ('mount --bind "$0/passwd" /etc/passwd && mount --bind "$0/group" /etc/group'
                  ' && exec "$@"')
        argv = ["unshare", "-m", "--propagation", "slave", "sh", "-c", script, p.directory,
                *argv]
    return subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False,
                          stdin=subprocess.DEVNULL)


def greets(port):
    try:
        with socket.create_connection(("127.0.0.1", port), 5) as s:
            s.settimeout(5)
            return s.recv(512).startswith(b"220")
    except OSError:
        return False


def append(path, text):
    with open(path, "a", encoding="utf-8") as f:
        f.write(text)


@pytest.mark.parametrize("name,line,words", [
    ("main.cf", "smtpd_recipent_limit = 5", "did you mean smtpd_recipient_limit?"),
    ("main.cf", "smtpd_recipient_limit = 10O", "give a whole number from 1 to 100000"),
    ("main.cf", "myhostname = other.test", "is set a second time"),
    ("main.cf", "transport_maps = texthash:/nonexistent/x", "/nonexistent/x: No such file"),
    ("main.cf", "transport_maps = lmdb:/etc/x", "type lmdb is not supported"),
    ("master.cf", "25 inet n - y - x smtpd", "maxproc is x"),
    ("master.cf", "2599 inet n - y - 1 smtpd -o nonsense=1", "nonsense: there is no such"),
])
def test_B84_B88_bad_configuration_is_refused_before_anything_is_touched(relay, name, line, words):
    relay.stop()
    append(relay.path(name), line + "\n")
    os.rename(relay.path("spool"), relay.path("spool.away"))
    for options in ((), ("-t",)):
        done = run_master(relay, *options)
        assert done.returncode == 1
        assert words in done.stderr
        if "transport_maps" not in line:
            assert f"{name}:" in done.stderr
        assert not os.path.exists(relay.path("spool"))


def test_check_only_starts_nothing(relay):
    relay.stop()
    done = run_master(relay, "-t")
    assert (done.returncode, done.stderr) == (0, "")
    assert "the configuration is good" in done.stdout
    assert not greets(relay.port)


def test_B84_reload_of_a_bad_configuration_keeps_the_old(relay):
    before = relay.pids()
    append(relay.path("main.cf"), "smtpd_recipient_limit = 0\n")
    relay.process.send_signal(signal.SIGHUP)
    relay.wait_log(r"master.*error: reload: main.cf:\d+: smtpd_recipient_limit = 0: is out of "
                   r"range.*the old configuration stays")
    assert greets(relay.port)
    assert relay.pids() == before


@ROOT_ONLY
@pytest.mark.parametrize("mode, who", [(0o666, "everybody"), (0o664, "its group"),
                                       (0o646, "everybody")])
@pytest.mark.parametrize("name", ["main.cf", "master.cf"])
def test_B85_configuration_that_others_may_write_is_refused(relay, name, mode, who):
    before = relay.pids()
    os.chmod(relay.path(name), mode)
    relay.process.send_signal(signal.SIGHUP)
    relay.wait_log(rf"error: reload: \S*{name}: is writable by {who}.*the old configuration stays")
    assert greets(relay.port) and relay.pids() == before
    relay.stop()
    done = run_master(relay)
    assert done.returncode == 1
    assert f"{name}: is writable by {who}" in done.stderr


def test_second_start_says_so_and_harms_nothing(relay):
    with open(relay.path("run/master.pid"), encoding="ascii") as f:
        pid = f.read().strip()
    done = run_master(relay)
    assert done.returncode == 1
    assert f"running already, as process {pid}" in done.stderr
    assert greets(relay.port)
    with open(relay.path("run/master.pid"), encoding="ascii") as f:
        assert f.read().strip() == pid


def test_port_that_is_taken_is_named(relay):
    relay.stop()
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        port = s.getsockname()[1]
        append(relay.path("master.cf"), f"127.0.0.1:{port} inet n - y - 1 smtpd\n")
        done = run_master(relay)
    assert done.returncode == 1
    assert f"127.0.0.1:{port}: another program listens there" in done.stderr


def test_reload_that_would_need_our_own_port_says_so(relay):
    relay.master_cf = f"0.0.0.0:{relay.port} inet n - y - 1 smtpd\n"
    relay.write_config()
    relay.process.send_signal(signal.SIGHUP)
    relay.wait_log(rf"reload: 0.0.0.0:{relay.port}: cannot be opened while Postern itself listens "
                   rf"on 127.0.0.1:{relay.port}; .*the old configuration stays")
    assert greets(relay.port)


def test_reload_changes_listeners_and_names(relay):
    old, new = relay.port, free_port()
    relay.master_cf = f"127.0.0.1:{new} inet n - y - 2 smtpd\n"
    relay.write_config(smtpd_banner="changed.test ESMTP")
    relay.process.send_signal(signal.SIGHUP)
    wait_until(lambda: greets(new), what="a greeting on the new port")
    with socket.create_connection(("127.0.0.1", new), 5) as s:
        assert s.recv(512).startswith(b"220 changed.test ESMTP")
    wait_until(lambda: not greets(old), what="the end of the old listener")
    wait_until(lambda: len(relay.pids("smtpd")) == 2, what="two processes")


def test_F44_session_goes_on_over_a_reload(relay):
    with relay.client() as c:
        c.ehlo()
        old = relay.pids("smtpd")
        relay.write_config(smtpd_banner="changed.test ESMTP")
        relay.process.send_signal(signal.SIGHUP)
        relay.wait_log(r"master.*reload: configuration .* is in effect")
        wait_until(lambda: set(relay.pids("smtpd")) - set(old), what="a new smtpd")
        assert c.mail("a@src.test")[0] == 250
        assert c.rcpt("b@dst.test")[0] == 250
        assert c.data(b"Subject: x\r\n\r\nbody\r\n")[0] == 250
    wait_until(lambda: not set(old) & set(relay.pids()), what="the end of the old smtpd")


def test_logs_can_be_rotated(relay):
    os.rename(relay.path("log"), relay.path("log.1"))
    os.rename(relay.path("events.json"), relay.path("events.1"))
    relay.process.send_signal(signal.SIGHUP)
    relay.wait_log(r"master.*reload: configuration .* is in effect")
    wait_until(lambda: os.path.exists(relay.path("events.json")), what="a new event log")
    relay.send("a@src.test", ["b@dst.test"], b"Subject: x\r\n\r\nbody\r\n")
    relay.wait_log(r"smtpd\[\d+\]: connect from")
    relay.wait_log(r"qmgr\[\d+\]: \w+: from=<a@src.test>")
    wait_until(relay.events, what="an event in the new log")


def test_F19_crash_loop_is_throttled_and_the_others_live(relay):
    others = {s: relay.pids(s) for s in SERVICES if s != "bounce"}
    delays = []
    for n in range(3):
        (pid,) = wait_until(lambda: relay.pids("bounce"), what="bounce")
        os.kill(pid, signal.SIGKILL)
        found = relay.wait_log(rf"bounce \(process {pid}\) was ended by signal 9 .* again in (\d+) s")
        delays.append(int(found[1]))
    assert delays == sorted(delays) and delays[2] > delays[0], delays
    assert {s: relay.pids(s) for s in others} == others
    assert greets(relay.port)


def test_F18_a_stopped_service_does_not_keep_the_relay_from_stopping(relay):
    (pid,) = relay.pids("bounce")
    os.kill(pid, signal.SIGSTOP)
    relay.process.send_signal(signal.SIGTERM)
    relay.wait_log(r"master\[\d+\]: stopping; ")
    relay.process.send_signal(signal.SIGTERM)  # at once
    assert relay.process.wait(30) == 0
    assert not os.path.exists(f"/proc/{pid}")
    assert not os.path.exists(relay.path("run/master.pid"))


@ROOT_ONLY
def test_every_service_is_in_its_jail(relay):
    users = set()
    for service in SERVICES:
        for pid in wait_until(lambda: relay.pids(service), what=service):
            with open(f"/proc/{pid}/status", encoding="ascii") as f:
                status = dict(l.rstrip("\n").split(":\t", 1) for l in f if ":\t" in l)
            uids = set(status["Uid"].split())
            assert len(uids) == 1 and "0" not in uids, service
            assert "0" not in status["Gid"].split(), service
            assert status["Groups"].split() == [], service
            for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
                assert int(status[kind], 16) == 0, (service, kind)
            assert status["NoNewPrivs"] == "1" and status["Seccomp"] == "2", service
            expected = "spool" if service == "qmgr" else "data/empty"
            assert os.path.samefile(f"/proc/{pid}/root", relay.path(expected)), service
            with open(f"/proc/{pid}/environ", "rb") as f:
                assert all(b"SAN_OPTIONS" in v for v in f.read().split(b"\0") if v), service
            users |= uids
    assert len(users) == len(SERVICES)


@ROOT_ONLY
def test_wrong_owners_are_repaired(relay):
    relay.stop()
    os.chown(relay.path("spool"), 0, 0)
    os.chmod(relay.path("spool"), 0o777)
    os.chmod(relay.path("data/empty"), 0o777)
    relay.start()
    assert os.stat(relay.path("spool")).st_mode & 0o7777 == 0o711
    assert os.stat(relay.path("spool")).st_uid != 0
    assert os.stat(relay.path("data/empty")).st_mode & 0o7777 == 0o755
    assert "owner and mode were" in relay.stderr() + relay.log()


@ROOT_ONLY
def test_directory_of_somebody_else_is_not_taken(relay):
    relay.stop()
    os.makedirs(relay.path("home/precious"))
    relay.write_config(queue_directory="home")
    done = run_master(relay)
    assert done.returncode == 1
    assert "give a directory of its own" in done.stderr
    assert os.stat(relay.path("home")).st_uid == 0


def test_stop_waits_for_a_session_and_not_longer_than_service_stop_time(relay):
    """A message under way is taken; a client that dawdles is cut off."""
    relay.stop()
    relay.write_config(service_stop_time="3s")
    relay.start()
    quick, slow = relay.client(), relay.client()
    for c in (quick, slow):
        c.ehlo()
        assert c.mail("a@src.test")[0] == 250
        assert c.rcpt("b@dst.test")[0] == 250
    relay.process.send_signal(signal.SIGTERM)
    relay.wait_log(r"master\[\d+\]: stopping; .* for 3 s at most")
    assert quick.data(b"Subject: x\r\n\r\nbody\r\n")[0] == 250
    assert relay.process.wait(20) == 0
    quick.close()
    slow.close()
    assert len(relay.spool_files()) == 1
    relay.wait_log(r"smtpd\[\d+\]: warning: not everything under way was finished in time")
