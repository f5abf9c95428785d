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
from parframe.runtime.rendezvous import meet
from parframe.runtime.shared_memory import SLOT
from parframe.runtime.shared_memory_collectives import LIMIT


def test_groups_are_made_by_their_ranks_in_their_order(tmp_path: Path) -> None:
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
    lengths = [1, 5, LIMIT // 8, SLOT // 8 + 1]  # in one hop, at once or in a ring, in a ring
    reductions = ["sum", "product", "max", "min"]
    facts = {"lengths": lengths, "reductions": reductions, "bound": bound, "dtype": dtype}
    with launch(Traces.create(tmp_path), "reduce", ranks, facts=facts) as run:
        told = [event.message for event in run.events() if "found" in event.message]
    assert [own["dtype"] for own in told] == [f"torch.{dtype}"] * ranks
    order_by_cause = platform.machine() in ("x86_64", "AMD64")
    assert [own["shared"] for own in told] == [bound and order_by_cause] * ranks
    for length in lengths:
        every = torch.stack([numbers(rank, length) for rank in range(ranks)])
        expected = {
            "sum": every.sum(0), "product": every.prod(0), "max": every.amax(0),
            "min": every.amin(0), "gathered": every.flatten(),
        }  # fmt: skip
        for name, whole in expected.items():
            assert all(own["found"][f"{name} {length}"] == whole.tolist() for own in told)


def test_a_group_that_was_not_named_is_refused(tmp_path: Path) -> None:
    facts = {"groups": [[0, 1]], "also": [1, 0]}
    with (
        pytest.raises(ParframeError, match="no process group of the ranks 1, 0"),
        launch(Traces.create(tmp_path), "gather", 2, facts=facts) as run,
    ):
        run.wait()


@pytest.mark.parametrize(
    ("ranks", "device", "told"),
    [
        ((0, 2), "cpu", "name ranks from 0 to 1"),
        ((), "cpu", "group of nobody"),
        ((0, 0), "cpu", "each once"),
        ((0,), "cpus", "did you mean 'cpu'?"),
        ((0,), "cuda", "this build of PyTorch has no nccl"),
        ((0,), "cpu", "call torch.distributed.init_process_group first"),
    ],
)
def test_groups_that_cannot_be_are_refused(ranks: tuple[int, ...], device: str, told: str) -> None:
    if device == "cuda" and dist.is_nccl_available():
        pytest.skip("this build of PyTorch has nccl")
    store = None if "init_process_group" in told else dist.HashStore()
    try:
        with pytest.raises(ParframeError, match=told.replace("?", r"\?")):
            make_groups([ranks], rank=0, world=2, device=device, timeout=5, store=store)
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def test_what_ranks_that_share_a_gpu_send_each_other_goes_through_the_hosts_memory() -> None:
    gpu, cpu = torch.device("cuda", 0), torch.device("cpu")
    assert (transfer_device(gpu), transfer_device(cpu)) == (gpu, cpu)
    try:
        make_groups(
            [], rank=0, world=1, device="cuda", timeout=5, store=dist.HashStore(), shared=True
        )
        assert (transfer_device(gpu), transfer_device(cpu)) == (cpu, cpu)
    finally:
        dist.destroy_process_group()


def test_ranks_that_are_the_same_meet() -> None:
    assert met([{}, {}, {}]) == ["", "", ""]


@pytest.mark.parametrize(
    ("ranks", "told"),
    [
        ([{}, {"facts": {"parframe": "0.2"}}], "rank 1 has parframe 0.2, but rank 0 has 0.1"),
        ([{}, {"facts": {}}], "rank 1 has parframe missing, but rank 0 has 0.1"),
        ([{"world": 1}, {}], "rank 1 has world 2, but rank 0 has 1"),
        ([{}, {"run": "b"}], "the rendezvous is that of another run"),
        ([{}, {"rank": 0}], "rank 0: it came to the rendezvous twice"),
        ([{}, {"rank": 2}], "rank 2: there are 2 ranks; see RANK and WORLD_SIZE"),
        ([{}, {"rank": 2, "world": 3}], "1 of 2 ranks did not come within 0.5 s: 1"),
        ([{"rank": 1, "world": 2}], "rank 1: rank 0 did not come within 1.6 s"),
    ],
)
def test_ranks_that_differ_do_not_begin(ranks: list[dict[str, Any]], told: str) -> None:
    assert any(told in error for error in met(ranks))


def met(ranks: list[dict[str, Any]]) -> list[str]:
    """What each rank is told when all meet at one store, nothing where all is well."""
    store = dist.HashStore()
    usual = {"world": len(ranks), "run": "a", "facts": {"parframe": "0.1"}}

    def one(numbered: tuple[int, dict[str, Any]]) -> str:
        number, own = numbered
        try:
            meet(store, **({"rank": number} | usual | {"timeout": 0.5} | own))
        except ParframeError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(len(ranks)) as pool:
        return list(pool.map(one, enumerate(ranks)))
