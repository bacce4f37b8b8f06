"""The soak with accounts: clients that log in over TLS, and what they owe at the end.

Each client is a user of an account with a plan; every message is charged when it is taken,
and each recipient ends as delivered or as refunded. At the end usage must be exactly that,
whatever was killed: nothing counted twice, nothing forgotten, nothing still reserved.
"""
import base64
import collections
import json
import os
import ssl
import subprocess
import sys

from postern import BIN, wait_until
from soak_clients import Client, Gone
from tls_rig import make

PLANS = """
plan count { messages = 1000000
  at_limit = surcharge
  overage = block:1000 }
plan volume { bytes = 1000GB
  byte_minimum = 10KB
  at_limit = block }
plan rates { account_rate = {1000000/minute, 10000000/day}
  user_rate = {1000000/hour} }
"""
ACCOUNTS = ("count", "volume", "rates")   # each has the plan of its name
POINTS = ("quota.apply", "quota.charged", "kv.apply")
OFTEN = 6   # it is killed, compared with soak_trouble.ACTIONS


def config(directory):
    """What main.cf has more, and plans.conf."""
    with open(os.path.join(directory, "plans.conf"), "w", encoding="utf-8") as f:
        f.write(PLANS)
    return {**make(directory, "relay.test").config, "accounts_enable": "yes",
            "plans_file": "plans.conf", "accounts_minfree": "0", "scram_iterations": "4096",
            # full before memory is measured: a larger one grows with its database
            "accounts_cache_size": "1M",
            "smtpd_sasl_auth_enable": "yes", "mynetworks": "192.0.2.0/24",
            "smtpd_recipient_restrictions": "permit_sasl_authenticated,reject"}


def account_of(k):
    return ACCOUNTS[k % len(ACCOUNTS)]


def fill(p, clients):
    """Accounts and users of a relay that has just started."""
    wait_until(lambda: p.ctl("account", "status", check=False).returncode == 0, 30, "quota")
    p.wait_log("plans read from")
    for name in ACCOUNTS:
        p.ctl("account", "add", name, "--plan", name)
        p.ctl("domain", "add", name, "src.test")
    for k in range(clients):
        subprocess.run([os.path.join(BIN, "postern"), "-c", p.directory, "user", "add", f"user{k}",
                        account_of(k)], input="secret\n", text=True, check=True, timeout=60)


class AccountClient(Client):
    """A client that logs in; it remembers whose its messages are."""

    def __init__(self, k, *rest):
        super().__init__(*rest)
        self.user, self.mine = f"user{k}", set()
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.tls.check_hostname, self.tls.verify_mode = False, ssl.CERT_NONE

    def greet(self):
        super().greet()
        self.expect(b"STARTTLS", b"220")
        self.input.close()
        self.socket = self.tls.wrap_socket(self.socket)
        self.input = self.socket.makefile("rb")
        super().greet()
        login = base64.b64encode(f"\0{self.user}\0secret".encode())
        if not self.command(b"AUTH PLAIN " + login).startswith(b"235"):
            raise Gone

    def submit(self, m):
        self.mine.add(m.number)
        super().submit(m)


def owed(clients, outcomes):
    """What usage must say of each account and user: {owner: (delivered, refunded)}."""
    sums = collections.defaultdict(lambda: [0, 0])
    for k, c in enumerate(clients):
        for number in c.mine:
            for owner in (account_of(k), f"{account_of(k)}/{c.user}"):
                for i in (0, 1):
                    sums[owner][i] += outcomes.get(number, (0, 0))[i]
    return sums


def usage(p, owner):
    account, _, user = owner.partition("/")
    return json.loads(p.ctl("usage", "show", account, *([user] if user else []), "--json"))


def compare(p, clients, outcomes):
    """Complaints, and the sums, once quota knows all; the queue is empty."""
    sums = owed(clients, outcomes)

    def difference():
        wrong = []
        for owner, (delivered, refunded) in sorted(sums.items()):
            u = usage(p, owner)
            have = (u["delivered"], u["refunded"], u["messages"])
            if have != (delivered, refunded, delivered):
                wrong.append(f"usage of {owner}: {have[0]} delivered, {have[1]} refunded, "
                             f"{have[2]} charged; it is {delivered} delivered, {refunded} refunded")
        return wrong
    try:
        # charges whose message is gone are asked about after some seconds
        wait_until(lambda: not difference(), 60, "usage that is what was delivered")
    except AssertionError as e:
        print(e, file=sys.stderr)
    return difference(), {owner: tuple(s) for owner, s in sums.items() if "/" not in owner}
