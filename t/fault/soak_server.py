"""Starts soak_sink.py, the receiving server of the soak and of the power cuts."""
import os
import subprocess
import sys

from postern import free_port

HERE = os.path.dirname(os.path.abspath(__file__))


class Sink:
    """The receiving server's process."""

    def __init__(self, directory, seed):
        self.port, self.second = free_port(), free_port()
        self.records = os.path.join(directory, "sink.records")
        self.process = subprocess.Popen(
            [sys.executable, os.path.join(HERE, "soak_sink.py"), "--port", str(self.port),
             "--second-port", str(self.second), "--records", self.records, "--seed", str(seed)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdout.readline() == b"ready\n"

    def tell(self, word):
        self.process.stdin.write(word.encode() + b"\n")
        self.process.stdin.flush()

    def stop(self):
        if self.process.poll() is None:
            self.tell("end")
            self.process.wait(10)

    def count(self):
        with open(self.records, "rb") as f:
            return sum(line.startswith((b"T", b"N")) for line in f)
