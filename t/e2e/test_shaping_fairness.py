"""Who goes first where a destination has less room than there is mail for it: accounts share it
evenly, by recipients, and by bytes too where connections are what is short; whoever made up a
refused burst waits for the others."""
import threading
from collections import Counter

import pytest

from postern import wait_until
from test_qmgr_operator import Control
from test_shaping import BULK, MAIL, NORMAL, refusal, rules
from test_shaping_connections import Counting, relay

LIMITS = 'default { start_rate = "%s" message_rate = "%s" start_connections = %d connections = %d }\n'


@pytest.fixture
def c():
    c = Control()
    yield c
    c.stop()


def limit(c, rate, connections):
    rules(c, LIMITS % (rate, rate, connections, connections))
    c.q.wait_log("providers.conf: 0 providers")


def line_up(c, mail):
    """(account, messages, recipients of each), in this order, while one message holds the line."""
    c.q.commit(["first@d.test"], account="first")
    c.q.resolved()
    first = c.q.job()
    for account, messages, recipients in mail:
        for n in range(messages):
            c.q.commit([f"{account}{n}.{r}@d.test" for r in range(recipients)], account=account,
                       sender=f"{account}@{account}.test")
    c.q.result(first)


def deliver_until(c, account, messages):
    """One after another; returns recipients by account, and the order of accounts."""
    recipients, order = Counter(), []
    while order.count(account) < messages:
        job = c.q.job()
        order.append(job.sender.decode().split("@")[0])
        recipients[order[-1]] += len(job.recipients)
        c.q.result(job)
    return recipients, order


@pytest.mark.parametrize("rate", ["1000000/s", "80/s"])
def test_shares_are_counted_in_recipients(c, rate):
    """However many recipients a message has, and whether connections are short or the rate."""
    limit(c, rate, 1 if rate == "1000000/s" else 2)
    line_up(c, [("a", 8, 50), ("b", 20, 10), ("c", 130, 1)])
    recipients, order = deliver_until(c, "c", 120)
    assert 100 <= recipients["a"] <= 200 and 100 <= recipients["b"] <= 140, (recipients, order)
    assert "c" in order[:4]  # it does not wait until the others have had their share


def test_who_is_alone_owes_nothing(c):
    """Large messages while nobody else waited are no debt to those who come later."""
    limit(c, "1000000/s", 1)
    line_up(c, [("a", 12, 50)])
    for _ in range(4):
        c.q.result(c.q.job())
    job = c.q.job()
    for n in range(10):
        c.q.commit([f"c{n}@d.test"], account="c", sender="c@c.test")
    c.q.result(job)
    _, order = deliver_until(c, "c", 5)
    assert "a" in order[:2], order


def test_nobody_starves_among_many(c):
    """More large senders than are looked at for one decision, and a small one."""
    limit(c, "1000000/s", 1)
    many = [f"m{n}" for n in range(50)]
    line_up(c, [(name, 3, 20) for name in many] + [("c", 10, 1)])
    left, recipients, order = 160, Counter(), []
    while left:
        job = c.q.job()
        order.append(job.sender.decode().split("@")[0])
        recipients[order[-1]] += len(job.recipients)
        c.q.result(job)
        left -= 1
    assert all(recipients[name] == 60 for name in many) and recipients["c"] == 10
    assert order.index("c") <= 51
    # of those that are large none has its last turn before another's first
    assert max(order.index(name) for name in many) < min(
        len(order) - 1 - order[::-1].index(name) for name in many), order


class SlowReader(Counting):
    """Takes so many bytes a second on each connection; knows in what order senders' mail came."""
    BYTES_A_SECOND = 8e6

    def __init__(self):
        super().__init__(pause=0)
        self.order, self.pace = [], threading.Condition()

    def session(self, s):
        f = s.makefile("rwb")

        def say(line):
            f.write(line + b"\r\n")
            f.flush()
        say(b"220 d.test")
        sender = ""
        for line in iter(f.readline, b""):
            verb = line[:4].upper()
            if verb == b"MAIL":
                sender = "a" if b"@a.test" in line else "b"
            if verb == b"DATA":
                say(b"354 go on")
                self.body(f)
                with self.lock:
                    self.order.append(sender)
            say(b"221 bye" if verb == b"QUIT" else b"250 ok")
            if verb == b"QUIT":
                return

    def body(self, f):
        unpaid = 0
        for line in iter(f.readline, b".\r\n"):
            unpaid += len(line)
            if unpaid > 100000:
                self.wait(unpaid)
                unpaid = 0

    def wait(self, n):
        """Reading takes its time here, as on a slow line."""
        with self.pace:
            self.pace.wait(n / self.BYTES_A_SECOND)


def test_large_messages_do_not_take_the_connections_from_small_ones(tmp_path):
    with SlowReader() as server:
        p = relay(tmp_path, server, "start_connections = 2 connections = 2", 1)
        try:
            large = b"Subject: x\r\n\r\n" + (b"x" * 76 + b"\r\n") * 26000
            with p.client() as client:
                for n in range(20):
                    client.sendmail("x@a.test", [f"a{n}@d.test"], large)
                for n in range(60):
                    client.sendmail("x@b.test", [f"b{n}@d.test"], b"Subject: x\r\n\r\nx\r\n")
            at = len(server.order)
            wait_until(lambda: server.order.count("b") == 60, 60, "the small ones")
            meanwhile = server.order[at:].count("a")
            assert meanwhile <= 8, server.order
            wait_until(lambda: server.order.count("a") == 20, 60, "the large ones")
        finally:
            p.stop()


SLOW = """rule slow { code = '^4' text = 'slow down' dimension = "rate" action = "slow" factor = 0.9 outcome = "retry"
  matches = {"421 slow down"} }
"""


def blame(c, first, waiting, refused):
    """`first`: whose deliveries are under way when the first `refused` of account a's are refused,
    one after the other, the rest taken; returns the accounts of those that follow."""
    rules(c, LIMITS % ("1000000/s", "1000000/s", len(first), len(first)) + SLOW)
    c.q.wait_log("providers.conf: 0 providers, 1 rules")
    for n, account in enumerate(first + waiting):
        c.q.commit([f"r{n}@d.test"], account=account, sender=f"{account}@{account}.test",
                   mail_class=BULK if account == "a" and n % 2 else NORMAL)
        if n == 0:
            c.q.resolved()
    jobs = [c.q.job() for _ in first]
    order = []
    bad = [j for j in jobs if j.sender.startswith(b"a@")][:refused]
    again = 0
    for job in bad + [j for j in jobs if j not in bad]:
        c.q.result(job, **(dict(outcomes=refusal(421, "slow down", MAIL), scope=2) if job in bad else {}))
        again += 1
    while again and len(order) < 10:
        job = c.q.job()
        order.append(job.sender[:1].decode())
        c.q.result(job)
    return "".join(order)


@pytest.mark.parametrize("refused", [1, 2, 4, 8])
def test_all_refusals_of_a_burst_blame_once(c, refused):
    """Account a, in two classes, had nine of ten deliveries: b's wait in line is not longer for
    more refusals of the same burst."""
    order = blame(c, ["a"] * 9 + ["b"], ["a"] * 20 + ["b"] * 12, refused)
    assert order.startswith("bbb"), order


def test_who_had_all_of_a_refused_burst_lets_others_go_first(c):
    order = blame(c, ["a"] * 10, ["a"] * 20 + ["b"] * 12, 1)
    assert order.startswith("bbb"), order


@pytest.mark.parametrize("organisation,spell", [
    ("spam.test", lambda n: f"s{n}.spam.test"),
    ("spam.co.uk", lambda n: f"s{n}.News.SPAM.co.uk"),  # its own name begins under a public suffix
    ("xn--bcher-kva.test", lambda n: f"s{n}." + ["bücher.test", "Bücher.test", "xn--bcher-kva.test"][n % 3]),
])
def test_many_domains_of_one_owner_have_one_share(c, organisation, spell):
    """Whoever has a domain makes as many below it as he likes."""
    limit(c, "1000000/s", 1)
    c.q.commit(["first@d.test"], sender="x@first.test")
    c.q.resolved()
    first = c.q.job()
    bulk = [c.q.commit(["a@d.test"], sender=f"x@{spell(n)}".encode()) for n in range(60)]
    small = [c.q.commit(["a@d.test"], sender="x@small.test") for _ in range(6)]
    why = c.ask(request="shaping.why", id=bulk[-1])[0]
    assert (why["before_it"], why["others"]) == (59, 1)
    c.q.result(first)
    order = []
    while not set(small) <= set(order):
        job = c.q.job()
        order.append(job.id.decode())
        c.q.result(job)
    assert len(order) <= 14, "small.test waited for others than one sender"
    assert [id for id in order if id in small] == small
    shown = c.ask(request="shaping.act", action="suspend", destination="all", account=f"@{spell(7)}", reason="x")[0]
    assert shown["who"] == "@" + organisation
    late = c.q.commit(["a@d.test"], sender=f"x@{spell(61)}".encode())
    c.q.wait_log(rf"{late}: .*suspended for account @{organisation}: by the operator: x")


def test_who_pays_for_the_name_under_which_customers_have_theirs(c):
    """A list of such names is public: customers of one host of pages are not one sender."""
    limit(c, "1000000/s", 1)
    c.q.commit(["first@d.test"], sender="x@first.test")
    c.q.resolved()
    first = c.q.job()
    ids = [c.q.commit(["a@d.test"], sender=f"x@{name}.github.io") for name in ("one", "two", "one", "two")]
    assert c.ask(request="shaping.why", id=ids[0])[0]["others"] == 1
    c.q.result(first)
    assert c.q.job().id.decode() == ids[0]
