"""The other end of shim.c: a qmgr and smtpd whose calls on the spool, and a quota whose
calls on its database, are written down, and can be made to fail.

    shim = Shim(place, build)
    with Postern(place, program_directory=shim.programs, ...) as p:
        shim.watch(p.path("spool"))
        shim.rule([RENAME], errno.ENOSPC, first=2)
    log = shim.records()
"""
import dataclasses
import mmap
import os
import struct
import subprocess

(CREATE, WRITE, TRUNCATE, RENAME, UNLINK, MKDIR, RMDIR, FSYNC, SYNCFS, SEND, OPEN,
 READ) = range(1, 13)
NAMES = ("", "create", "write", "truncate", "rename", "unlink", "mkdir", "rmdir", "fsync",
         "syncfs", "send", "open", "read")
SHORT, KILL, IGNORE, KILL_BEFORE = -1, -2, -3, -4
FILES, DIRECTORIES = 1, 2

PAGE = 4096
HEAD = struct.Struct("=QQQQQII")   # struct shared
RULE = struct.Struct("=IiQQQQII")
RULES = 12
RECORD = struct.Struct("=IHHIiQQqqQQQQQII")
FIELDS = {"used": 0, "size": 8, "clock": 16, "device": 24, "overflow": 32, "fsync_us": 40,
          "syncfs_us": 44}

# Calls of the C library that change files or make them durable. A program that
# imports one that shim.c does not know would be watched with one eye closed.
CHANGERS = {
    "openat", "open", "open64", "openat64", "openat2", "creat", "creat64", "mkdir", "mkdirat",
    "rename", "renameat", "renameat2", "unlink", "unlinkat", "remove", "rmdir", "link", "linkat",
    "symlink", "symlinkat", "mknod", "mknodat", "mkfifo", "mkfifoat", "write", "pwrite",
    "pwrite64", "writev", "pwritev", "pwritev64", "pwritev2", "pwritev64v2", "ftruncate",
    "ftruncate64", "truncate", "truncate64", "fallocate", "fallocate64", "posix_fallocate",
    "posix_fallocate64", "copy_file_range", "sendfile", "sendfile64", "splice", "vmsplice", "tee",
    "fsync", "fdatasync", "syncfs", "sync", "sync_file_range", "msync", "io_submit",
    "io_uring_enter", "io_uring_setup", "mkstemp", "mkostemp", "mkdtemp", "aio_write", "aio_fsync",
    "fopen", "fopen64", "freopen", "fdopen", "syscall"}
KNOWN = {"openat", "open", "mkdir", "mkdirat", "rename", "renameat", "renameat2", "unlink",
         "unlinkat", "rmdir", "write", "pwrite", "ftruncate", "fsync", "fdatasync", "syncfs"}
# smtpd keeps content in memory files; fallocate is for those, and is not on the spool
ELSEWHERE = {"qmgr": set(), "smtpd": {"fallocate"}, "quota": set()}
# Berkeley DB: fopen is for its settings and messages, writev for copies on other machines
LIBRARIES = {"quota": ("libdb-", {"fopen", "writev"})}
PROGRAMS = {"qmgr": 1, "smtpd": 2, "quota": 3}   # numbers, for rules


def changers_in(file):
    out = subprocess.run(["nm", "-D", "--undefined-only", file], capture_output=True, text=True,
                         check=True).stdout
    return {line.split()[-1].split("@")[0] for line in out.splitlines()} & CHANGERS


def library_of(program, name):
    """The file of a shared library that the program is linked with."""
    out = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    return next(line.split()[2] for line in out.splitlines() if line.strip().startswith(name))


def unknown_calls(build):
    """What the watched programs import and the shim does not see."""
    found = []
    for program, spared in ELSEWHERE.items():
        path = os.path.join(build, "bin", program)
        calls = changers_in(path) - spared
        if program in LIBRARIES:
            library, unused = LIBRARIES[program]
            calls |= changers_in(library_of(path, library)) - unused
        found += [f"{program}: {name}" for name in sorted(calls - KNOWN)]
    return found


@dataclasses.dataclass
class Record:
    call: int
    pid: int
    error: int
    begin: int
    end: int          # 0: it never returned
    begin_ns: int
    end_ns: int
    inode: int
    directory: bool   # fsync: of a directory
    source: tuple     # (directory's inode, name)
    target: tuple
    at: int
    size: int
    data: bytes

    def __str__(self):
        what = f"{self.source[1]}" if self.source[0] else ""
        if self.target[0]:
            what += f" -> {self.target[1]}"
        if self.call in (WRITE, TRUNCATE):
            what = f"{self.size} bytes at {self.at}"
        failed = f" = {os.strerror(self.error)}" if self.error else ""
        return f"{self.begin}-{self.end} {NAMES[self.call]} inode {self.inode} {what}{failed}"


class Shim:
    def __init__(self, directory, build, size=1 << 28, sends=True):
        self.path = os.path.join(directory, "shim")
        self.programs = os.path.join(directory, "bin")
        os.makedirs(self.programs, exist_ok=True)
        library = os.path.join(build, "t", "libfault_shim.so")
        assert os.path.exists(library), f"{library} is not built"
        with open(self.path, "wb") as f:
            f.truncate(PAGE + size)
        os.chmod(self.path, 0o666)
        with open(self.path, "r+b") as f:
            self.map = mmap.mmap(f.fileno(), 0)
        self.set("size", size)
        for name in os.listdir(os.path.join(build, "bin")):
            program, place = os.path.join(build, "bin", name), os.path.join(self.programs, name)
            if os.path.lexists(place):
                os.unlink(place)
            if name not in ELSEWHERE:
                os.symlink(program, place)
                continue
            tell = f"export POSTERN_SHIM_PROGRAM={PROGRAMS[name]}\n"
            if sends and name == "qmgr":
                tell += "export POSTERN_SHIM_SENDS=1\n"
            with open(place, "w", encoding="utf-8") as f:
                f.write(f"#!/bin/sh\n{tell}export LD_PRELOAD='{library}' POSTERN_SHIM='{self.path}'\n"
                        'export ASAN_OPTIONS="$ASAN_OPTIONS:verify_asan_link_order=0"\n'
                        f"exec '{program}' \"$@\"\n")
            os.chmod(place, 0o755)

    # ---- struct shared

    def get(self, field):
        return struct.unpack_from("=I" if field.endswith("_us") else "=Q", self.map,
                                  FIELDS[field])[0]

    def set(self, field, value):
        struct.pack_into("=I" if field.endswith("_us") else "=Q", self.map, FIELDS[field], value)

    def watch(self, spool):
        """From now on calls on this file system are recorded."""
        self.set("device", os.stat(spool).st_dev)

    def rule(self, calls, action, first=1, count=1, which=0, index=0, programs=()):
        """From the first-th of these calls on, `count` get the action; of all programs, or
        those named."""
        mask = sum(1 << c for c in calls)
        at = HEAD.size + index * RULE.size
        RULE.pack_into(self.map, at, 0, 0, 0, 0, 0, 0, 0, 0)
        RULE.pack_into(self.map, at, 0, action, first, count, 0, 0, which,
                       sum(1 << PROGRAMS[name] for name in programs))
        struct.pack_into("=I", self.map, at, mask)

    def seen(self, index=0):
        """Calls that a rule looked at, and how many it hit."""
        return struct.unpack_from("=QQ", self.map, HEAD.size + index * RULE.size + 24)

    def clear(self):
        for i in range(RULES):
            RULE.pack_into(self.map, HEAD.size + i * RULE.size, 0, 0, 0, 0, 0, 0, 0, 0)

    # ---- records

    def records(self):
        assert self.get("overflow") == 0, "the record of the calls was too long"
        out, at, used = [], PAGE, PAGE + self.get("used")
        while at < used:
            (length, call, directory, pid, error, begin, end, begin_ns, end_ns, inode, source,
             target, offset, size, source_len, target_len) = RECORD.unpack_from(self.map, at)
            assert length, "a process died while it wrote a record"
            name = at + RECORD.size
            middle, data = name + source_len, name + source_len + target_len
            out.append(Record(
                call, pid, error, begin, end, begin_ns, end_ns, inode, bool(directory),
                (source, self.map[name:middle].decode(errors="surrogateescape")),
                (target, self.map[middle:data].decode(errors="surrogateescape")),
                offset, size, self.map[data:data + size] if call == WRITE else b""))
            at += length
        out.sort(key=lambda r: r.begin)
        return out
