"""Processes that die, and a spool that must not forget: CASES F01-F14, F17-F19."""
import os
import random
import signal
import smtplib
import subprocess
import threading

import pytest

from postern import Postern, free_port, pause, wait_until
from sink import Sink

FAST = {"minimal_backoff_time": "1s", "maximal_backoff_time": "2s",
        "destination_suspend_time": "1s"}


def submit(p, count, start=0):
    """Sends messages one by one; the numbers of those that got a 250."""
    acknowledged = set()
    client = None
    for i in range(start, start + count):
        try:
            if client is None:
                client = p.client(10)
                client.ehlo()
            client.sendmail("a@src.test", [f"r{i}@dst.test"],
                            b"Subject: n\r\nX-Number: %d\r\n\r\nx\r\n" % i)
            acknowledged.add(i)
        except (OSError, smtplib.SMTPException):
            client = None
            pause(0.05)
    return acknowledged


def received(sink):
    return {int(m.recipients[0].split("@")[0][1:]) for m in list(sink.messages)}


@pytest.mark.parametrize("service", ["smtpd", "qmgr", "relay", "resolve", "bounce"])
def test_F01_F14_a_killed_service_is_replaced_and_mail_goes_on(place, service):
    with Sink() as sink, Postern(place, relayhost=f"[127.0.0.1]:{sink.port}", **FAST) as p:
        first = submit(p, 5)
        sink.wait(5)
        for pid in p.pids(service):
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: p.pids(service) and p._answers(), what="a replacement")
        second = set()
        wait_until(lambda: second.update(submit(p, 1, 100 + len(second))) or len(second) >= 5,
                   what="five more acknowledgements")
        wait_until(lambda: received(sink) >= first | second, 90, "the delivery of all")


def test_F04_F08_F29_killing_everything_under_load_loses_nothing(place):
    """Everything dies at once, again and again, while clients submit."""
    rng = random.Random(20261121)
    with Sink() as sink:
        p = Postern(place, relayhost=f"[127.0.0.1]:{sink.port}", **FAST)
        acknowledged, done = set(), threading.Event()

        def load(base):
            n = 0
            while not done.is_set():
                acknowledged.update(submit(p, 20, base + n))
                n += 20

        try:
            for turn in range(4):
                done.clear()
                threads = [threading.Thread(target=load, args=((turn * 10 + k) * 100000,))
                           for k in range(3)]
                for t in threads:
                    t.start()
                before = len(sink.messages)
                wait_until(lambda: len(sink.messages) > before + 50, 60, "some deliveries")
                pause(rng.random() / 2)
                p.kill()
                done.set()
                for t in threads:
                    t.join()
                p.start()
            wait_until(lambda: received(sink) >= acknowledged, 90,
                       "the delivery of all that was acknowledged")
            wait_until(lambda: not p.spool_files("new"), 30, "an empty spool")
            assert not p.spool_files("corrupt")
        finally:
            p.stop()


def test_F17_services_end_when_master_is_killed(place):
    with Sink() as sink, Postern(place, relayhost=f"[127.0.0.1]:{sink.port}") as p:
        pids = p.pids()
        os.kill(p.process.pid, signal.SIGKILL)
        p.process.wait()
        wait_until(lambda: not any(os.path.exists(f"/proc/{x}") for x in pids), 20,
                   "the services' end")
        p.process = None
        p.start()
        assert submit(p, 1)
        sink.wait(1)


def test_F18_a_stopped_service_is_ended_by_the_watchdog(place):
    with Sink() as sink, Postern(place, relayhost=f"[127.0.0.1]:{sink.port}",
                                 service_watchdog_timeout="3s", **FAST) as p:
        (pid,) = p.pids("relay")
        os.kill(pid, signal.SIGSTOP)
        wait_until(lambda: p.pids("relay") and pid not in p.pids("relay"), 30, "a replacement")
        assert submit(p, 1)
        sink.wait(1, 90)


def test_F44_reload_under_load_drops_no_session(place):
    with Sink() as sink, Postern(place, relayhost=f"[127.0.0.1]:{sink.port}") as p:
        with p.client() as c:
            c.ehlo()
            c.sendmail("a@src.test", ["r1@dst.test"], b"x\r\n")
            old = p.pids("smtpd")
            p.ctl("reload")
            wait_until(lambda: set(p.pids("smtpd")) - set(old), what="a new smtpd")
            c.sendmail("a@src.test", ["r2@dst.test"], b"x\r\n")
        assert submit(p, 1, 3)
        assert received(sink) <= {1, 2, 3}
        wait_until(lambda: received(sink) == {1, 2, 3}, what="three deliveries")


def test_F21_full_disk_is_452_and_deliveries_go_on(place):
    if os.getuid() != 0:
        pytest.skip("needs root to mount a small file system")
    spool = os.path.join(place, "spool")
    os.makedirs(spool)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m,mode=755", "tmpfs", spool], check=True)
    try:
        port = free_port()
        with Postern(place, relayhost=f"[127.0.0.1]:{port}", queue_minfree="1m",
                     queue_journal_size="0", **FAST) as p:
            taken, code = 0, 250
            with p.client() as c:
                c.ehlo()
                for i in range(200):
                    try:
                        c.sendmail("a@src.test", [f"r{i}@dst.test"], b"x\r\n" + b"y" * 70 + b"\r\n" * 8000)
                        taken += 1
                    except smtplib.SMTPResponseException as e:
                        code = e.smtp_code
                        break
                    except smtplib.SMTPRecipientsRefused as e:
                        code = next(iter(e.recipients.values()))[0]
                        break
                    if i % 20 == 19:
                        pause(1.2)  # the free space is looked at once a second
            assert code == 452 and taken > 0
            with Sink(port) as sink:
                sink.wait(taken, 60)
                wait_until(lambda: submit(p, 1, 1000), 30, "room for new mail")
                sink.wait(taken + 1)
    finally:
        subprocess.run(["umount", "-l", spool], check=True)
