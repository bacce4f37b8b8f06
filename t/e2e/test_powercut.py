"""F20: the power is cut at every write of qmgr, and of quota, on a simulated disk
(t/fault/powercut). The mutants show that a relay which is wrong would be found out."""
import argparse
import os
import sys
import tempfile

import pytest

FAULT = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "fault")
sys.path.insert(0, FAULT)

import powercut_run  # noqa: E402
import powercut_scenario  # noqa: E402
import shim  # noqa: E402
from postern import BUILD  # noqa: E402

SEED, MESSAGES = 20261122, 120


def recorded(journal, **options):
    with tempfile.TemporaryDirectory(prefix="postern-") as directory:
        os.chmod(directory, 0o755)
        yield directory, powercut_scenario.record(directory, SEED, messages=MESSAGES,
                                                  journal=journal, **options)


@pytest.fixture(scope="module")
def recording():
    """Of a relay whose messages all get a file at once."""
    yield from recorded("0")


@pytest.fixture(scope="module")
def journalled():
    yield from recorded("1m")


@pytest.fixture(scope="module")
def paid():
    """With accounts: their database is looked at, too."""
    yield from recorded("1m", accounts=True)


def test_the_recorder_knows_all_calls_that_change_the_spool():
    assert not shim.unknown_calls(BUILD)


def step(call, begin, end, begin_ns, end_ns):
    return shim.Record(call, 1, 0, begin, end, begin_ns, end_ns, 7, False, (1, "a"), (0, ""), 0, 0,
                       b"")


def test_a_removal_comes_after_the_delivery_whatever_other_threads_did_meanwhile():
    """Another thread's write ended, by the clock, before the removal began, and got its
    number after it."""
    second = 10**9
    write = step(shim.WRITE, 1, 6, 1 * second, 3 * second)
    removal = step(shim.UNLINK, 5, 7, 4 * second, 5 * second)
    rec = powercut_scenario.Recording({}, 0, [write, removal], {}, {}, [], [], {}, [])
    assert rec.position(2.0) == removal.begin, "a removal after the delivery seems too early"
    assert rec.position(4.5) == removal.end, "a removal before the delivery would not be found"
    assert rec.position(0.0) == write.begin
    assert rec.position(6.0) > removal.end


@pytest.mark.parametrize("which", ["recording", "journalled"])
def test_F20_power_cut_at_every_write(request, which):
    directory, rec = request.getfixturevalue(which)
    report = powercut_run.judge(directory, rec, SEED, turns=2, restarts=3)
    assert not report["wrong"], "\n".join(report["wrong"][:20])
    assert report["acknowledged"] >= 30 and report["delivered"] >= 40 and report["noticed"] >= 1
    assert report["cuts"] >= 200 and report["states"] >= 1600 and report["restarts"] == 3


@pytest.mark.parametrize("name", powercut_run.REPLAYED)
def test_F20_the_checker_finds_a_relay_that_is_wrong(recording, name):
    directory, rec = recording
    report = powercut_run.judge(directory, rec, SEED, mutant=name)
    assert report["wrong"], "nothing was found"


@pytest.mark.parametrize("name", powercut_run.JOURNALLED)
def test_F20_the_checker_finds_a_journal_that_is_wrong(journalled, name):
    directory, rec = journalled
    report = powercut_run.judge(directory, rec, SEED, mutant=name)
    assert report["wrong"], "nothing was found"


def test_F16_F20_F41_what_is_counted_agrees_with_the_mail_after_a_power_cut(paid):
    """The rule is in powercut_accounts.py."""
    directory, rec = paid
    report = powercut_run.judge(directory, rec, SEED, turns=1, restarts=2)
    assert not report["wrong"], "\n".join(report["wrong"][:20])
    assert report["acknowledged"] >= 30 and report["delivered"] >= 40
    assert report["cuts"] >= 200 and report["databases"] >= 20 and report["restarts"] == 2


@pytest.mark.parametrize("name", powercut_run.PAID)
def test_F20_the_checker_finds_accounts_that_are_wrong(paid, name):
    directory, rec = paid
    report = powercut_run.judge(directory, rec, SEED, states=600, mutant=name)
    assert report["wrong"], "nothing was found"


def test_F20_the_recorder_sees_a_disk_that_lies(place):
    """The whole way, from qmgr's calls to the verdict."""
    options = argparse.Namespace(seed=SEED, messages=60, turns=1, states=0, restarts=0,
                                 mutant="lying-directories", journal="1m", accounts=False)
    assert powercut_run.run(place, options)["wrong"], "nothing was found"
