"""The limits per client hold over all smtpd processes."""
import os
import signal
import socket

import pytest
from postern import Postern, wait_until

CLIENT = "127.0.0.9"


@pytest.fixture
def relay(place):
    with Postern(place, start=False, relayhost="[127.0.0.1]:1",
                 smtpd_client_connection_count_limit="3",
                 smtpd_client_event_limit_exceptions="") as p:
        p.master_cf = f"127.0.0.1:{p.port} inet n - y - 2 smtpd\n"
        p.write_config()
        p.start()
        p.wait_log(r"master\[\d+\]: ready: ")
        yield p
        for pid in p.pids("smtpd"):
            os.kill(pid, signal.SIGCONT)


def connect(relay):
    """A connection and the code of its greeting."""
    s = socket.create_connection(("127.0.0.1", relay.port), 10, (CLIENT, 0))
    return s, int(s.recv(512)[:3])


def only(relay, pid):
    """Connections are taken by this process alone."""
    for other in relay.pids("smtpd"):
        os.kill(other, signal.SIGCONT if other == pid else signal.SIGSTOP)


def is_free(relay):
    s, code = connect(relay)
    s.close()
    return code == 220


def hold(relay, count):
    """Opens connections that all must be greeted."""
    out = []
    for _ in range(count):
        s, code = connect(relay)
        assert code == 220
        out.append(s)
    return out


def test_the_limit_counts_connections_of_both_processes(relay):
    one, two = relay.pids("smtpd")
    only(relay, one)
    held = hold(relay, 2)
    only(relay, two)
    held += hold(relay, 1)
    refused, code = connect(relay)
    assert code == 421
    relay.wait_log(rf"smtpd\[{two}\]: warning: Connection concurrency limit exceeded: "
                   rf"4 from unknown\[{CLIENT}\] for service smtpd")
    refused.close()
    held.pop().close()
    wait_until(lambda: is_free(relay), 10, "a place for another connection")
    for s in held:
        s.close()


def test_a_killed_process_leaves_no_counts(relay):
    one, two = relay.pids("smtpd")
    only(relay, one)
    held = hold(relay, 3)
    only(relay, two)
    assert not is_free(relay)
    os.kill(one, signal.SIGKILL)
    wait_until(lambda: is_free(relay), 10, "the dead process's counts to go")
    wait_until(lambda: len(relay.pids("smtpd")) == 2, 10, "a process in its place")
    for s in held:
        s.close()


def test_after_a_reload_sessions_of_old_processes_still_count(relay):
    held = hold(relay, 3)
    before = set(relay.pids("smtpd"))
    relay.process.send_signal(signal.SIGHUP)
    wait_until(lambda: len(set(relay.pids("smtpd")) - before) == 2, 10, "new processes")
    relay.wait_log(r"configuration \S+ is in effect")

    def refused():
        s, code = connect(relay)
        s.close()
        return code == 421
    wait_until(refused, 10, "a refusal by a new process")
    assert refused()
    for s in held:
        s.close()
    wait_until(lambda: is_free(relay), 10, "a place for another connection")
