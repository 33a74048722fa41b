"""Messages over pipes: deadlines on both ways, and what is no message."""

import contextlib
import os
import resource
import struct
import time

import pytest

from torch_eqsat.errors import WorkerError
from torch_eqsat.search.worker.channel import LARGEST_MESSAGE, MAGIC, Channel, ClosedChannelError, LateError


@pytest.fixture
def pipes():
    """A channel, and the other side's descriptors: to read what it sends, and to write what it receives."""
    theirs, ours = os.pipe(), os.pipe()
    channel = Channel(ours[0], theirs[1])
    yield channel, theirs[0], ours[1]
    channel.close()
    for descriptor in (theirs[0], ours[1]):
        with contextlib.suppress(OSError):
            os.close(descriptor)


def soon() -> float:
    return time.monotonic() + 60.0


def now() -> float:
    return time.monotonic() + 0.05


def test_messages_come_whole_and_in_order(pipes):
    channel, to_read, to_write = pipes
    other = Channel(to_read, to_write)
    channel.greet(soon())
    channel.send("first", soon())
    channel.send({"second": 2}, soon())
    other.expect_greeting(soon())
    assert [other.receive(soon()), other.receive(soon())] == ["first", {"second": 2}]


def test_who_does_not_read_is_late(pipes):
    """A pipe holds 64 KiB: a blocking write of more never returned."""
    channel, _, _ = pipes
    with pytest.raises(LateError, match="did not read in time"):
        channel.send(bytes(1 << 20), now())


def test_who_does_not_write_is_late(pipes):
    channel, _, to_write = pipes
    with pytest.raises(LateError, match="did not answer in time"):
        channel.receive(now())
    os.write(to_write, struct.pack("<Q", 100) + b"half")
    with pytest.raises(LateError):
        channel.receive(now())
    assert not channel.is_ready(now())


def test_who_is_gone_is_noticed(pipes):
    channel, to_read, to_write = pipes
    os.close(to_read)
    with pytest.raises(ClosedChannelError):
        channel.send("anything", soon())
    os.close(to_write)
    assert channel.is_ready(soon())
    with pytest.raises(ClosedChannelError):
        channel.receive(soon())


@pytest.mark.parametrize("said", [b"hello\n" * 20, MAGIC[:-2] + b"9\n"])
def test_what_greets_otherwise_is_no_worker(pipes, said):
    channel, _, to_write = pipes
    os.write(to_write, said)
    with pytest.raises(WorkerError, match="is none: it said b'"):
        channel.expect_greeting(soon())


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        (struct.pack("<Q", LARGEST_MESSAGE + 1), "announced a message of 1073741825 bytes"),
        (struct.pack("<Q", 6) + b"hello\n", "a message cannot be read"),
    ],
)
def test_what_is_no_message_is_refused(pipes, said, problem):
    channel, _, to_write = pipes
    os.write(to_write, said)
    with pytest.raises(WorkerError, match=problem):
        channel.receive(soon())


def test_descriptors_beyond_those_of_select():
    """select refuses numbers from 1024 on, which a server with many connections has."""
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] <= 1100:
        pytest.skip("needs a limit of more than 1100 open files")
    read, write = os.pipe()
    high = [os.dup2(descriptor, number) for descriptor, number in ((read, 1090), (write, 1091))]
    other = Channel(*high)
    other.send("hello", soon())
    assert other.receive(soon()) == "hello"
    other.close()
    os.close(read)
    os.close(write)
