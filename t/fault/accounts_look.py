"""accounts-look (accounts_look.c): what the accounts' database of a directory has counted, and
whether it agrees with itself."""
import collections
import json
import os
import subprocess

from postern import BUILD

CHARGED, DELIVERED, REFUNDED = "RD", "D", "F"   # the states of recipients that count for each


class Look:
    """The database, opened in one directory after the other."""

    def __init__(self):
        self.process = subprocess.Popen([os.path.join(BUILD, "t", "accounts-look")],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        encoding="utf-8", errors="replace")

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        self.close()

    def at(self, directory):
        self.process.stdin.write(directory + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(f"accounts-look died on {directory}: {self.process.wait(10)}")
        return json.loads(line)

    def close(self):
        self.process.stdin.close()
        status = self.process.wait(20)
        assert status == 0, f"accounts-look ended with {status}"


def owners(charge):
    """(owner, period, bytes for a recipient) of all that a charge is counted in."""
    levels = charge["levels"]
    counted = [(l["account"], l["period"], l["each"]) for l in levels]
    if levels and charge["user"]:
        counted.append((f"{levels[0]['account']}/{charge['user']}", *counted[0][1:]))
    return counted


def sums_differ(found):
    """Every usage has to be the sum of the charges, none of which was forgotten yet: in
    messages and in bytes. Complaints."""
    sums = collections.defaultdict(lambda: [[0, 0], [0, 0], [0, 0]])
    for charge in found["charges"]:
        for owner, period, each in owners(charge):
            for total, states in zip(sums[owner, period], (CHARGED, DELIVERED, REFUNDED)):
                count = sum(s in states for s in charge["states"])
                total[0] += count
                total[1] += count * each
    have = {(u["owner"], u["period"]): [u["charged"], u["delivered"], u["refunded"]]
            for u in found["usage"]}
    none = [[0, 0], [0, 0], [0, 0]]
    return [f"usage of {owner} is {have.get((owner, period), none)} and its charges are "
            f"{sums.get((owner, period), none)} (charged, delivered, refunded; messages, bytes)"
            for owner, period in sorted(sums.keys() | have.keys())
            if have.get((owner, period), none) != sums.get((owner, period), none)]
