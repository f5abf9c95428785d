import mmap
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from parframe.runtime.shared_memory import Segment, bytes_of

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="shared memory is Linux's")


@settings(max_examples=20, deadline=None)
@given(
    pauses=st.lists(st.tuples(*[st.sampled_from([0.0, 0.0, 0.001, 0.004])] * 3), max_size=12),
    length=st.integers(0, 3000),
)
def test_members_get_all_messages_in_turn_however_late_some_come(
    pauses: list[tuple[float, float, float]], length: int
) -> None:
    memory = mmap.mmap(-1, bytes_of(3))

    def member(place: int) -> list[torch.Tensor]:
        segment = Segment(memory, 3, place, [os.getpid()] * 3, timeout=20)
        found = []
        for number, paused in enumerate(pauses):
            time.sleep(paused[place])
            found.append(segment.exchange(message(number, place, length)).clone())
        return found

    with ThreadPoolExecutor(3) as pool:
        for found in pool.map(member, range(3)):
            for number, got in enumerate(found):
                expected = [message(number, place, length) for place in range(3)]
                assert torch.equal(got, torch.stack(expected))


def message(number: int, place: int, length: int) -> torch.Tensor:
    return torch.arange(length, dtype=torch.float32).view(1, length) + 100 * number + place


def test_a_member_that_has_died_is_found() -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    with pytest.raises(ConnectionError, match=f"process {gone.pid} has ended"):
        alone(gone.pid, timeout=60).exchange(torch.ones(4))


def test_a_member_that_dies_is_not_waited_for_longer() -> None:
    with subprocess.Popen(["sleep", "0.3"]) as dying:
        begun = time.monotonic()
        with pytest.raises(ConnectionError, match=f"process {dying.pid} has ended"):
            alone(dying.pid, timeout=60).exchange(torch.ones(4))
        assert time.monotonic() - begun < 30


def test_a_member_that_never_comes_is_waited_for_until_the_timeout() -> None:
    with pytest.raises(ConnectionError, match=r"timed out after 0\.2 s: member 1 of a group"):
        alone(os.getpid(), timeout=0.2).exchange(torch.ones(4))


@pytest.mark.parametrize(
    ("lengths", "odd", "told"),
    [
        ((6, 6, 3), 2, "size doesn't match: 24 vs 12"),
        ((3, 3, 6), 2, "size doesn't match: 12 vs 24"),
        ((6, 3), 1, "size doesn't match: 24 vs 12"),
    ],
)
def test_a_member_whose_message_is_of_another_size_is_told_and_the_others_of_it(
    lengths: tuple[int, ...], odd: int, told: str
) -> None:
    size = len(lengths)
    memory = mmap.mmap(-1, bytes_of(size))

    def member(place: int) -> str:
        segment = Segment(memory, size, place, [os.getpid()] * size, timeout=20)
        with pytest.raises((RuntimeError, ConnectionError)) as raised:
            segment.exchange(torch.ones(lengths[place]))
        return f"{raised.type.__name__}: {raised.value}"

    with ThreadPoolExecutor(size) as pool:
        found = list(pool.map(member, range(size)))
    assert told in found.pop(odd)
    assert all(f"ConnectionError: member {odd} of a group gave" in other for other in found)


def alone(other: int, timeout: float) -> Segment:
    """The segment of a member whose only other one, a process, writes nothing."""
    return Segment(mmap.mmap(-1, bytes_of(2)), 2, 0, [os.getpid(), other], timeout)
