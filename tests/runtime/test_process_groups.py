import platform
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from launched import numbers
from launches import Traces, launch

from parframe import ParframeError
from parframe.launcher.processes import count_cpus
from parframe.ops.group_registry import transfer_device
from parframe.runtime.process_groups import make_groups
from parframe.runtime.rendezvous import join_rendezvous
from parframe.runtime.shared_memory import SLOT_BYTES
from parframe.runtime.shared_memory_collectives import GLOO_LIMIT


def test_groups_are_created_with_their_ranks_in_order(tmp_path: Path) -> None:
    groups = [[0, 1], [2, 3], [3, 1], [2], [0, 1, 2, 3]]
    with launch(Traces.create(tmp_path), "gather", 4, facts={"groups": groups}) as run:
        gathered = {event.rank: event.message["gathered"] for event in run.events()}
    assert gathered == {
        rank: [group for group in groups if rank in group and len(group) > 1] for rank in range(4)
    }


@pytest.mark.parametrize("dtype", ["float64", "int32"])
@pytest.mark.parametrize(("ranks", "bound"), [(3, False), (2, True)])
def test_small_and_large_messages_are_reduced_alike_on_all_ranks(
    ranks: int, bound: bool, dtype: str, tmp_path: Path
) -> None:
    if bound and count_cpus() < ranks:
        pytest.skip(f"needs {ranks} processors")
    lengths = [
        1,
        5,
        GLOO_LIMIT // 8,
        SLOT_BYTES // 8 + 1,
    ]  # in one hop, at once or in a ring, in a ring
    reductions = ["sum", "product", "max", "min"]
    facts = {"lengths": lengths, "reductions": reductions, "bound": bound, "dtype": dtype}
    with launch(Traces.create(tmp_path), "reduce", ranks, facts=facts) as run:
        reports = [event.message for event in run.events() if "found" in event.message]
    assert [report["dtype"] for report in reports] == [f"torch.{dtype}"] * ranks
    in_order = platform.machine() in ("x86_64", "AMD64")
    assert [report["shared"] for report in reports] == [bound and in_order] * ranks
    for length in lengths:
        every = torch.stack([numbers(rank, length) for rank in range(ranks)])
        expected = {
            "sum": every.sum(0), "product": every.prod(0), "max": every.amax(0),
            "min": every.amin(0), "gathered": every.flatten(),
        }  # fmt: skip
        for name, whole in expected.items():
            assert all(report["found"][f"{name} {length}"] == whole.tolist() for report in reports)


@pytest.mark.parametrize(
    ("ranks", "device", "message"),
    [
        ((0, 2), "cpu", "use ranks from 0 to 1"),
        ((), "cpu", "group without ranks"),
        ((0, 0), "cpu", "each once"),
        ((0,), "cpus", "did you mean 'cpu'?"),
        ((0,), "cuda", "this build of PyTorch has no nccl"),
        ((0,), "cpu", "call torch.distributed.init_process_group first"),
    ],
)
def test_invalid_groups_are_an_error(ranks: tuple[int, ...], device: str, message: str) -> None:
    if device == "cuda" and dist.is_nccl_available():
        pytest.skip("this build of PyTorch has nccl")
    store = None if "init_process_group" in message else dist.HashStore()
    try:
        with pytest.raises(ParframeError, match=message.replace("?", r"\?")):
            make_groups([ranks], rank=0, world=2, device=device, timeout=5, store=store)
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def test_ranks_that_share_a_gpu_send_through_cpu_memory() -> None:
    gpu, cpu = torch.device("cuda", 0), torch.device("cpu")
    assert (transfer_device(gpu), transfer_device(cpu)) == (gpu, cpu)
    try:
        make_groups(
            [], rank=0, world=1, device="cuda", timeout=5, store=dist.HashStore(), shared=True
        )
        assert (transfer_device(gpu), transfer_device(cpu)) == (cpu, cpu)
    finally:
        dist.destroy_process_group()


def test_equal_ranks_join_the_rendezvous() -> None:
    assert rendezvous_errors([{}, {}, {}]) == ["", "", ""]


@pytest.mark.parametrize(
    ("ranks", "message"),
    [
        ([{}, {"facts": {"parframe": "0.2"}}], "rank 1 has parframe 0.2, but rank 0 has 0.1"),
        ([{}, {"facts": {}}], "rank 1 has parframe missing, but rank 0 has 0.1"),
        ([{"world": 1}, {}], "rank 1 has world 2, but rank 0 has 1"),
        ([{}, {"run": "b"}], "the rendezvous is of another run"),
        ([{}, {"rank": 0}], "rank 0: it joined the rendezvous twice"),
        ([{}, {"rank": 2}], "rank 2: there are 2 ranks; check RANK and WORLD_SIZE"),
        ([{}, {"rank": 2, "world": 3}], "1 of 2 ranks did not arrive within 0.5 s: 1"),
        ([{"rank": 1, "world": 2}], "rank 1: rank 0 did not arrive within 1.6 s"),
    ],
)
def test_ranks_that_differ_are_an_error(ranks: list[dict[str, Any]], message: str) -> None:
    assert any(message in error for error in rendezvous_errors(ranks))


def rendezvous_errors(ranks: list[dict[str, Any]]) -> list[str]:
    """Return the error of each rank that joins a rendezvous at one store, or an empty text."""
    store = dist.HashStore()
    defaults = {"world": len(ranks), "run": "a", "facts": {"parframe": "0.1"}}

    def join(numbered: tuple[int, dict[str, Any]]) -> str:
        rank, own = numbered
        try:
            join_rendezvous(store, **({"rank": rank} | defaults | {"timeout": 0.5} | own))
        except ParframeError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(len(ranks)) as pool:
        return list(pool.map(join, enumerate(ranks)))
