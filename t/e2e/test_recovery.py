"""A next hop that was down for long: mail flows soon after it is back."""
import re

from postern import Postern, free_port, wait_until
from sink import Sink


def pauses(p):
    return [int(n) for n in re.findall(r"site \S+: suspended for (\d+)s", p.log())]


def test_a_dead_next_hop_is_looked_at_every_minimal_backoff_time(place):
    """Whatever maximal_backoff_time: else new mail would wait an hour for it."""
    port = free_port()
    with Postern(place, relayhost=f"[127.0.0.1]:{port}", destination_suspend_time="1s",
                 minimal_backoff_time="2s", maximal_backoff_time="1h",
                 initial_destination_concurrency="1") as p:
        for i in range(6):
            p.send("a@src.test", [f"old{i}@dst.test"], b"Subject: x\r\n\r\nx\r\n")
        wait_until(lambda: len(pauses(p)) >= 4, 40, "four suspensions")
        assert pauses(p)[:4] == [1, 2, 2, 2]
        with Sink(port=port) as sink:
            p.send("a@src.test", ["new@dst.test"], b"Subject: x\r\n\r\nx\r\n")
            wait_until(lambda: any("new@dst.test" in m.recipients for m in sink.messages), 20,
                       "the new message")
