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

from parframe.runtime.shared_memory import Segment, segment_bytes

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="shared memory needs Linux")


@settings(max_examples=20, deadline=None)
@given(
    delays=st.lists(st.tuples(*[st.sampled_from([0.0, 0.0, 0.001, 0.004])] * 3), max_size=12),
    length=st.integers(0, 3000),
)
def test_ranks_get_all_messages_in_order_however_late_some_arrive(
    delays: list[tuple[float, float, float]], length: int
) -> None:
    memory = mmap.mmap(-1, segment_bytes(3))

    def run_rank(rank: int) -> list[torch.Tensor]:
        segment = Segment(memory, 3, rank, [os.getpid()] * 3, timeout=20)
        gathered = []
        for number, delay in enumerate(delays):
            time.sleep(delay[rank])
            gathered.append(segment.all_gather(make_message(number, rank, length)).clone())
        return gathered

    with ThreadPoolExecutor(3) as pool:
        for gathered in pool.map(run_rank, range(3)):
            for number, messages in enumerate(gathered):
                expected = [make_message(number, rank, length) for rank in range(3)]
                assert torch.equal(messages, torch.stack(expected))


def make_message(number: int, rank: int, length: int) -> torch.Tensor:
    return torch.arange(length, dtype=torch.float32).view(1, length) + 100 * number + rank


def test_a_rank_whose_process_has_ended_is_detected() -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    with pytest.raises(ConnectionError, match=f"process {process.pid} has ended"):
        first_rank(process.pid, timeout=60).all_gather(torch.ones(4))


def test_waiting_stops_when_the_other_process_ends() -> None:
    with subprocess.Popen(["sleep", "0.3"]) as process:
        begun = time.monotonic()
        with pytest.raises(ConnectionError, match=f"process {process.pid} has ended"):
            first_rank(process.pid, timeout=60).all_gather(torch.ones(4))
        assert time.monotonic() - begun < 30


def test_waiting_for_a_rank_that_never_arrives_times_out() -> None:
    with pytest.raises(ConnectionError, match=r"timed out after 0\.2 s: rank 1 of a group"):
        first_rank(os.getpid(), timeout=0.2).all_gather(torch.ones(4))


@pytest.mark.parametrize(
    ("lengths", "wrong", "message"),
    [
        ((6, 6, 3), 2, "size doesn't match: 24 vs 12"),
        ((3, 3, 6), 2, "size doesn't match: 12 vs 24"),
        ((6, 3), 1, "size doesn't match: 24 vs 12"),
    ],
)
def test_a_message_of_another_size_is_an_error_on_all_ranks(
    lengths: tuple[int, ...], wrong: int, message: str
) -> None:
    size = len(lengths)
    memory = mmap.mmap(-1, segment_bytes(size))

    def run_rank(rank: int) -> str:
        segment = Segment(memory, size, rank, [os.getpid()] * size, timeout=20)
        with pytest.raises((RuntimeError, ConnectionError)) as raised:
            segment.all_gather(torch.ones(lengths[rank]))
        return f"{raised.type.__name__}: {raised.value}"

    with ThreadPoolExecutor(size) as pool:
        errors = list(pool.map(run_rank, range(size)))
    assert message in errors.pop(wrong)
    assert all(f"ConnectionError: rank {wrong} of a group sent" in other for other in errors)


def first_rank(other: int, timeout: float) -> Segment:
    """Return the segment of rank 0 of two, where rank 1 is a process that writes nothing."""
    return Segment(mmap.mmap(-1, segment_bytes(2)), 2, 0, [os.getpid(), other], timeout)
