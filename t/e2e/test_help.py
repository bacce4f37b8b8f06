"""What the help says, and with it the manual page, which is made from it: every option that
is described exists, and every option that exists is described."""
import functools
import glob
import os
import re
import subprocess

import pytest

from postern import BIN, ROOT

NOWHERE = "/nonexistent"  # nothing is done: there is no configuration
OPTION = r"(?<![\w-])--?[a-z][a-z-]*"


def run(*args):
    return subprocess.run([os.path.join(BIN, "postern"), "-c", NOWHERE, *args], text=True,
                          capture_output=True, timeout=60, check=False, stdin=subprocess.DEVNULL)


@functools.cache
def commands():
    listed = re.search(r"^Commands:\n((?:  .*\n)+)", run("help").stdout, re.M)[1]
    return [name for name in re.findall(r"^  (\S+(?: \S+)?)  +", listed, re.M) if name != "help"]


@functools.cache
def described(command):
    """Options in its usage, and those that have a line of explanation."""
    usage, _, rest = run("help", *command.split()).stdout.partition("\n")
    usage = usage.removeprefix("usage: postern [-c DIR] " + command)
    lines = re.findall(rf"^  ({OPTION}[^\n]*?)(?:  +|$)", rest.split("\nExample")[0], re.M)
    return set(re.findall(OPTION, usage + "\n" + "\n".join(lines) + "\n" +
                          "\n".join(re.findall(r"^  (--?[a-z].*)$", rest, re.M))))


@functools.cache
def known():
    """Options of all commands: those in the sources' tables, and those of all helps."""
    found = set().union(*(described(c) for c in commands()))
    for path in glob.glob(os.path.join(ROOT, "ctl", "*.c")):
        with open(path, encoding="utf-8") as f:
            found |= set(re.findall(r'\{"(--?[a-z][a-z-]*)",', f.read()))
    return sorted(found)


def exists(command, option):
    """An unknown option is refused by its name, before anything else is looked at."""
    done = run(*command.split(), f"{option}=x")
    assert done.returncode != 0
    return f"there is no option {option}" not in done.stderr


def test_the_commands_are_there():
    assert {"start", "queue list", "message show", "trace", "site show"} < set(commands())
    assert {"--json", "--dry-run", "--sender", "--limit", "-n", "--plan"} < set(known())
    for command in commands():
        assert run(*command.split(), "--help").stdout == run("help", *command.split()).stdout


def test_help_of_a_family_is_help_however_it_is_asked_for():
    for option in ("--help", "-h"):
        got = run("queue", option)
        assert got.returncode == 0 and got.stderr == ""
        assert got.stdout == run("help", "queue").stdout != ""


@pytest.mark.parametrize("command", commands())
def test_options_are_those_that_are_described(command):
    real = {option for option in known() if exists(command, option)} - {"-c", "--help", "-h"}
    words = described(command) - {"-c", "--help", "-h"}
    assert not words - real, "described, and not there"
    if "--json" not in words:  # every command takes it; where it changes nothing it is not told
        real -= {"--json"}
    if command == "queue flush":  # never asks; scripts may say --yes to all of them
        real -= {"--yes"}
    assert not real - words, "there, and not described"
