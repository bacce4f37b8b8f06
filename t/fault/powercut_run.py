"""From a recording to a verdict: all states of all cuts; and the mutants that show
that a wrong relay would be found out."""
import os
import random
import shutil
import tempfile

import powercut_accounts
import powercut_check
import powercut_disk
import powercut_restart
import powercut_scenario
import shim
from postern import BUILD

CALLS_AROUND = 200
SAMPLES_SPARE = 8   # states that are kept for each that a whole relay gets: chance has its way
SURE = ("none", "all", "names", "data")    # one state a cut
CHANCE = ("journal", "random")             # as many as there are turns


def memory_directory():
    """States are made by the thousand: not on a disk."""
    place = "/dev/shm" if os.path.isdir("/dev/shm") else None
    return tempfile.mkdtemp(prefix="postern-powercut-", dir=place)


# ---- mutants: what qmgr would do if it were wrong ---------------------------------------


def no_names(states):
    states.disk.worth = lambda sync: (False, True)


def no_content(states):
    states.disk.worth = lambda sync: (True, False)


def no_new(states):
    new = states.rec.tree["new"][0]
    states.disk.worth = lambda sync: (sync.call != shim.SYNCFS and sync.inode != new, True)


def no_large(states):
    # nor by a syncfs for other messages, which may come in between
    states.disk.forgets = lambda op: op.record.call == shim.WRITE and op.record.size > 16384


def no_finish(states):
    free = states.rec.tree["free"][0]
    states.disk.forgets = lambda op: op.record.target[0] == free


def early_answer(states):
    named = {r.target[1]: r.end for r in states.rec.records if r.call == shim.RENAME}
    for m in states.rec.messages.values():
        if m.id in named:
            states.judge.acked[m.number] = named[m.id]


def lazy_mark(states):
    free = states.rec.tree["free"][0]
    states.disk.forgets = lambda op: op.record.target[0] == free or op.record.size == 1


def no_journal(states):
    ring = states.rec.tree["journal/ring"][0]
    states.disk.worth = lambda sync: (True, sync.inode != ring)


def early_tail(states):
    ring = states.rec.tree["journal/ring"][0]
    states.disk.forgets = lambda op: op.record.inode == ring and op.record.at >= 4096


def early_filed(states):
    ring = states.rec.tree["journal/ring"][0]
    states.disk.forgets = lambda op: op.record.call == shim.WRITE and op.record.inode != ring


def no_notice(states):
    states.judge.noticed.clear()


# name: (what it does to the replay of a sound recording, in words)
REPLAYED = {
    "no-names": (no_names, "directories are never synced"),
    "no-content": (no_content, "files are never synced"),
    "no-new": (no_new, "the directory new/ is never synced"),
    "no-large": (no_large, "large bodies are not synced"),
    "no-finish": (no_finish, "files are used again before their old names are durably gone"),
    "early-answer": (early_answer, "the answer leaves before the syncs"),
    "lazy-mark": (lazy_mark, "marks of delivered recipients are not synced"),
    "no-notice": (no_notice, "notices are lost"),
}
# the same, for a recording with a journal
JOURNALLED = {
    "no-journal": (no_journal, "the journal is not synced"),
    "early-tail": (early_tail, "of the journal nothing but its superblock is durable"),
    "early-filed": (early_filed, "messages count as filed whose files are not durable"),
    "no-notice": (no_notice, "notices are lost"),
}
# the same, for a recording with accounts
def no_log(states):
    states.base.worth = lambda sync: (False, False)


def early_release(states):
    # the spool as it is, the database as it was before its last syncs
    states.base.forgets = lambda op: op.record.begin > states.halfway


def uncounted(states):
    def forget(found):
        if found.get("charges"):
            found["charges"].pop()
    states.database.forget = forget


def lost_refunds(states):
    def forget(found):
        for c in found.get("charges", ()):
            c["states"] = c["states"].replace("F", "R")
    states.database.forget = forget


PAID = {
    "no-log": (no_log, "the log of the accounts' database is not synced"),
    "early-release": (early_release, "mail is let go of before its charge is durable"),
    "uncounted": (uncounted, "usage is written without the charge it follows from"),
    "lost-refunds": (lost_refunds, "refunds are forgotten"),
}
# name: (rule of the shim while the relay runs, in words)
REAL = {
    "lying-directories": ({"calls": [shim.FSYNC], "action": shim.IGNORE,
                           "which": shim.DIRECTORIES},
                          "fsync of a directory says that it is done and does nothing"),
    "lying-syncfs": ({"calls": [shim.SYNCFS], "action": shim.IGNORE},
                     "syncfs says that it is done and does nothing"),
}


def mutants():
    return [(name, why) for name, (_, why) in {**REPLAYED, **JOURNALLED, **PAID, **REAL}.items()]


# ---- the states ---------------------------------------------------------------------------


class States:
    """Goes through all cuts of a recording; `wrong` collects the broken promises."""

    def __init__(self, rec, directory, seed, mutate=None):
        self.rec, self.directory, self.seed = rec, directory, seed
        self.judge = powercut_check.Judge(rec)
        self.look = powercut_check.Look(os.path.join(BUILD, "t", "spool-look"))
        self.memory = memory_directory()
        self.disk = self.disks = powercut_disk.Disk(rec.tree, rec.root)
        self.base = self.database = self.money = None
        if rec.database:
            self.watch_accounts()
        self.known = {}        # a state's hash -> Found
        self.wrong, self.states, self.cuts = [], 0, 0
        self.kept = 0
        self.samples = []      # (position, policy, tree) for whole relays
        self.random, self.rng = random.Random(seed), random.Random(seed + 1)
        if mutate:
            mutate(self)

    def watch_accounts(self):
        """The database's directory is the other half of each state."""
        tree, root, _ = self.rec.database
        self.base = powercut_accounts.DatabaseDisk(tree, root)
        self.disks = powercut_accounts.Disks(self.disk, self.base)
        self.database = powercut_accounts.Database(self.memory)
        self.money = powercut_accounts.MoneyJudge(self.rec, self.judge)
        self.halfway = max(r.begin for r in self.rec.records) // 2

    def find(self, tree):
        key = hash(tuple(sorted((p, c if c is None else hash(c)) for p, c in tree.items())))
        if key not in self.known:
            place = os.path.join(self.memory, "spool")
            powercut_check.build_tree(place, tree)
            self.known[key] = powercut_check.Found(self.look, place)
        return self.known[key]

    def keep(self, position, policy, tree, accounts):
        """The first broken states stay, to be looked at."""
        if self.kept >= 3:
            return
        self.kept += 1
        place = os.path.join(self.directory, f"cut-{position}-{policy}")
        powercut_check.build_tree(place, tree)
        if accounts is not None:
            powercut_check.build_tree(place + ".accounts", accounts)
        with open(place + ".calls", "w", encoding="utf-8") as f:
            f.writelines(f"{r}\n" for r in self.rec.records
                         if abs(r.begin - position) < CALLS_AROUND)

    def try_one(self, position, policy, turn, samples):
        rng = powercut_disk.rng_for(self.seed, position, policy, turn)
        tree, accounts = self.disk.state(policy, rng), None
        self.states += 1
        found = self.find(tree)
        broken = self.judge.judge(position, found)
        if self.money:
            accounts = self.base.state(policy, rng)
            broken += self.money.judge(position, found, self.database.find(accounts))
        if broken:
            self.wrong += [f"cut {position}, {policy}: {b}" for b in broken]
            self.keep(position, policy, tree, accounts)
        if self.rng.random() < samples:
            self.samples.append((position, policy, tree, accounts))

    def go(self, turns, limit=0, samples=0):
        """All cuts, or about as many as make `limit` states; about `samples` of them
        are kept for whole relays."""
        every = len(SURE) + turns * len(CHANCE)
        steps = 2 * len([r for r in self.rec.records if r.call != shim.SEND and
                         not powercut_disk.is_filler(r)])
        share = min(1.0, limit / (every * steps)) if limit else 1.0
        samples *= SAMPLES_SPARE / (every * steps * share)
        try:
            position = 0
            for position in powercut_disk.cuts(self.disks, self.rec.records):
                self.cuts += 1
                for policy in SURE:
                    if self.random.random() < share:
                        self.try_one(position, policy, 0, samples)
                for policy in CHANCE:
                    for turn in range(turns):
                        if self.random.random() < share:
                            self.try_one(position, policy, turn, samples)
            self.try_one(position + 1, "none", 0, samples)
            self.compare_with_the_end()
            self.look.close()
        finally:
            for look in (self.look, self.database and self.database.look):
                if look:
                    look.process.kill()
                    look.process.wait()
            shutil.rmtree(self.memory, ignore_errors=True)

    def compare_with_the_end(self):
        """Whether the record is complete: with everything done the model is the real
        directory."""
        tree = self.disk.state("all", random.Random(0))
        for path in sorted(set(tree) | set(self.rec.end)):
            if path.split("/")[0] not in powercut_scenario.FOLDERS:
                continue   # no mail: what the shaper has learned
            here, there = tree.get(path, "nothing"), self.rec.end.get(path, "nothing")
            if path.startswith(powercut_disk.UNREAD) and "nothing" not in (here, there):
                continue
            if here != there:
                self.wrong.append(f"the record is not complete: {path} is another one")
        if self.base:
            tree, end = self.base.state("all", random.Random(0)), self.rec.database[2]
            self.wrong += [f"the record is not complete: {path} of the accounts is another one"
                           for path in sorted(set(tree) | set(end)) if tree.get(path, "nothing") !=
                           end.get(path, "nothing")]


def judge(directory, rec, seed, turns=1, states=0, restarts=0, mutant=""):
    """All cuts of a recording; the report."""
    s = States(rec, directory, seed,
               {**REPLAYED, **JOURNALLED, **PAID}[mutant][0] if mutant else None)
    s.go(turns, states, restarts)
    samples = s.samples[::max(1, len(s.samples) // restarts)][:restarts] if restarts else []
    if samples:
        s.wrong += powercut_restart.try_all(directory, rec, s.judge, samples, seed)
    return {"seed": seed, "calls": len(rec.records), "cuts": s.cuts, "states": s.states,
            "different_states": len(s.known), "restarts": len(samples),
            "acknowledged": len(s.judge.by_id), "delivered": len(s.judge.delivered),
            "noticed": len(s.judge.noticed), "orders": len(rec.orders),
            **({"databases": len(s.database.known)} if s.database else {}), "wrong": s.wrong}


def run(directory, o):
    """Records and judges; the report."""
    unknown = shim.unknown_calls(BUILD)
    assert not unknown, f"calls that the recorder does not see: {', '.join(unknown)}"
    lie = REAL[o.mutant][0] if o.mutant in REAL else None
    files_only = o.mutant in {**REPLAYED, **REAL} and o.mutant not in JOURNALLED
    rec = powercut_scenario.record(directory, o.seed, messages=o.messages, lie=lie,
                                   journal="0" if files_only else o.journal,
                                   accounts=o.accounts or o.mutant in PAID)
    return judge(directory, rec, o.seed, o.turns, o.states, o.restarts,
                 o.mutant if o.mutant not in REAL else "")
