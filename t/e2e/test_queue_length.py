"""Long queues: a restart, and lists of what is on the disk only."""
import os
import subprocess
import time

import pytest

from postern import BIN, BUILD, Postern, free_port, wait_until
from sink import Sink

FILL = os.path.join(BUILD, "t/spool-fill")
CONTENT = b"Subject: x\r\n\r\nbody\r\n"


def filled(place, count, domains=1, defer=3600, **config):
    """A relay that was stopped, with so many messages in its spool."""
    p = Postern(place, relayhost=f"[127.0.0.1]:{free_port()}", **config)
    p.stop()
    subprocess.run([FILL, p.path("spool"), str(count), str(domains), "300", str(defer)],
                   check=True)
    return p


def takes_mail(p):
    try:
        with p.client(5) as c:
            c.ehlo()
            return c.mail("s@src.test")[0] == 250
    except OSError:
        return False


def compat(p, *argv):
    return subprocess.run([argv[0], "-c", p.directory, *argv[1:]], check=True, text=True,
                          executable=os.path.join(BIN, "postern"), stdout=subprocess.PIPE,
                          timeout=60).stdout


def test_F45_restart_with_a_long_queue(place):
    """Mail is taken and delivered at once, while the queue is still being read."""
    count = 30000
    p = filled(place, count, domains=50)
    with Sink() as sink:
        p.write_config(relayhost=f"[127.0.0.1]:{sink.port}")
        begin = time.monotonic()
        p.start()
        wait_until(lambda: takes_mail(p), 10, "mail taken")
        p.send("s@src.test", ["fresh@dst.test"], CONTENT)
        sink.wait(1, 10)
        taken = time.monotonic() - begin
        with p:
            p.wait_log(f"spool read: {count} messages", 60)
            read = time.monotonic() - begin
            assert taken < 5 and read < 30, (taken, read)
            assert sink.messages[0].recipients == ["fresh@dst.test"]
            assert f'"messages":{count}' in p.ctl("status", "--json")


@pytest.mark.parametrize("limit", [10, 20000])
def test_list_of_what_is_on_the_disk(place, limit):
    """Complete, in one order, and without a change of the schedule or the memory."""
    count = 3000
    p = filled(place, count, qmgr_message_active_limit=str(limit))
    with p:
        p.start()
        p.wait_log(f"spool read: {count} messages", 60)
        first, second = p.ctl("queue", "list", "--json"), p.ctl("queue", "list", "--json")
        assert len(first.splitlines()) == count
        assert [l[:40] for l in first.splitlines()] == [l[:40] for l in second.splitlines()]
        assert first.count('"attempts":1') == count and first.count('"next"') >= count
        assert len(compat(p, "postqueue", "-j").splitlines()) == count
        assert f"-- {count * 300 // 1024} Kbytes in {count} Requests." in compat(p, "mailq")
        figures = p.ctl("status", "--json")
        active = int(figures.split('"active":')[1].split(",")[0])
        assert active <= limit
        assert p.ctl("queue", "hold", "--recipient", "user1*") == "1111 messages held.\n"
        assert len(p.ctl("queue", "list", "--status", "hold").splitlines()) == 1112
        assert p.ctl("queue", "delete", "--all", "--yes") == f"{count} messages deleted.\n"
        assert p.ctl("queue", "undelete", "--all") == f"{count} messages brought back.\n"
        assert len(p.ctl("queue", "list", "--status", "hold").splitlines()) == 1112


def test_many_lists_at_a_time_and_some_that_are_left(place):
    count = 3000
    p = filled(place, count, qmgr_message_active_limit="10")
    with p:
        p.start()
        p.wait_log(f"spool read: {count} messages", 60)
        argv = [os.path.join(BIN, "postern"), "-c", p.directory, "queue", "list"]
        lists = [subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) for _ in range(12)]
        for one in lists[8:]:  # these read a little and go
            one.stdout.readline()
            one.kill()
        for one in lists[:8]:
            assert len(one.communicate(timeout=60)[0].splitlines()) == count + 1
        for one in lists[8:]:
            one.stdout.close()
            one.wait()
        assert p.ctl("status", "--json").count('"spool":"ok"') == 1
