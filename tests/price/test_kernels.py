"""Times of single kernels: what must hold of any, and how near measured ones are."""

import time
from pathlib import Path

import attrs
import pytest

from parframe.errors import ParframeError
from parframe.hardware import shipped as shipped_hardware
from parframe.price.cost.chip import chip
from parframe.price.cost.dtypes import Dtypes
from parframe.price.cost.efficiency import read, shipped, write
from parframe.price.cost.expert_times import UNIFORM, Routing, expert_loads
from parframe.price.cost.kernel_times import kernel_time, product_time
from parframe.price.work.work import Attention, Experts, Pointwise, Product, Step

MEASURED = Path(__file__).parents[3] / "shared" / "measurements"


A100, H100, H200, B200, MI300X = (
    shipped_hardware().device(name) for name in ("A100", "H100", "H200", "B200", "MI300X")
)
BF16 = Dtypes()
DECODE = Step(sequences=8, new_tokens=1, cached_tokens=1024)
PROMPT = Step(sequences=1, new_tokens=2048)
KERNELS = (
    Product(4096, 14336),
    Product(8192, 8192, per="sequence", unquantized=True),
    Attention(32, 8, 128, 128, cache_width=2048),
    Attention(32, 8, 128, 128, cache_width=2048, window=512),
    Experts(8, 8, 2, 4096, 14336),
    Pointwise(3 * 4096),
)


def seconds(kernel, step, gpu=H100, dtypes=BF16, **more):
    return kernel_time(kernel, step, gpu, dtypes, **more).value


@pytest.mark.parametrize("kernel", KERNELS)
def test_more_rows_and_more_positions_never_take_less(kernel):
    for steps in (
        [Step(rows, 1, 1024) for rows in (1, 2, 8, 40, 256)],
        [Step(2, new) for new in (32, 200, 1024, 5000)],
        [Step(2, 1, cached) for cached in (16, 500, 3000, 20000)],
    ):
        times = [seconds(kernel, step) for step in steps]
        assert times == sorted(times)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_kernel_is_not_faster_than_what_it_reads_and_computes(kernel):
    fast = attrs.evolve(H100, rates={"bf16": 1e20}, bandwidth=3350e9)
    assert seconds(kernel, DECODE, fast) <= seconds(kernel, DECODE)
    assert seconds(kernel, DECODE) > 1e-6


def test_equal_kernels_are_counted():
    one, many = Product(4096, 4096), Product(4096, 4096, count=32)
    assert seconds(many, DECODE) == pytest.approx(32 * seconds(one, DECODE))


def test_half_of_a_weight_is_read_in_about_half_of_the_time():
    whole, half = Product(8192, 28672), Product(8192, 14336)
    assert 0.5 < seconds(half, DECODE) / seconds(whole, DECODE) < 0.56


def test_fewer_bits_make_decode_faster_and_prompts_only_where_products_have_them():
    kernel = Product(8192, 28672)
    sixteen, eight, four = (
        seconds(kernel, DECODE, dtypes=Dtypes(w)) for w in ("bf16", "fp8", "int4")
    )
    assert four < eight < sixteen
    prompt = {w: seconds(kernel, PROMPT, dtypes=Dtypes(w)) for w in ("bf16", "fp8", "int4")}
    assert prompt["fp8"] < 0.8 * prompt["bf16"]
    assert prompt["int4"] > 0.9 * prompt["bf16"]


def test_a_table_stays_in_sixteen_bits():
    head = Product(8192, 128256, per="sequence", unquantized=True)
    assert seconds(head, DECODE, dtypes=Dtypes("int4")) == seconds(head, DECODE)


def test_a_cache_of_eight_bits_is_read_faster():
    kernel, step = Attention(64, 8, 128, 128, cache_width=2048), Step(64, 1, 8192)
    assert seconds(kernel, step, dtypes=Dtypes(cache="fp8")) < 0.6 * seconds(kernel, step)


def test_a_window_bounds_what_is_seen():
    open_, narrow = (Attention(32, 8, 128, 128, cache_width=2048, window=w) for w in (None, 1024))
    for step in (Step(32, 1, 16384), Step(1, 16384)):
        assert seconds(narrow, step) < 0.4 * seconds(open_, step)
    short = Step(1, 1024)
    assert seconds(narrow, short) == pytest.approx(seconds(open_, short), rel=0.15)


def test_experts_are_touched_as_tokens_come():
    def touched(tokens):
        kernel = Experts(64, 64, 4, 4096, 2048)
        return seconds(kernel, Step(tokens, 1, 100))

    assert touched(1) < 0.25 * touched(64)
    assert touched(64) > 0.8 * touched(128)


@pytest.mark.parametrize("routing", [UNIFORM, Routing(1.2), Routing(exact=True)])
def test_every_visit_falls_to_an_expert(routing):
    found = expert_loads(1000.0, 8, 128, 128, routing)
    busiest = expert_loads(1000.0, 8, 128, 16, routing)
    assert 1000 <= sum(load * count for load, count in busiest) <= 8000
    assert sum(load * count for load, count in found) == pytest.approx(8000)
    assert sum(count for _, count in found) == 128
    assert max(load for load, _ in found) <= 1000


def test_a_popular_expert_makes_its_device_slower():
    kernel = Experts(16, 128, 8, 4096, 1536)
    even, skewed = (seconds(kernel, Step(1, 4096), routing=r) for r in (UNIFORM, Routing(1.2)))
    assert skewed > 1.2 * even


def test_a_gpu_without_rows_is_priced_wide_and_says_as_what():
    known = kernel_time(KERNELS[0], DECODE, H100, BF16)
    unknown = kernel_time(KERNELS[0], DECODE, B200, BF16)
    assert known.notes == ()
    assert unknown.log_std > known.log_std
    assert (
        "not measured on b200_sxm; using its efficiency on h100_sxm, h200_sxm" in unknown.notes[0]
    )
    left_out = kernel_time(KERNELS[0], DECODE, H100, BF16, without="h100_sxm")
    assert "using its efficiency on h200_sxm" in left_out.notes[0]


def test_an_architecture_unlike_any_measured_one_is_priced_wider_still():
    near, far = (kernel_time(KERNELS[0], DECODE, gpu, BF16) for gpu in (B200, MI300X))
    assert far.log_std > near.log_std + 0.1


def test_a_latent_cache_is_scored_as_it_is_kept():
    latent = Attention(128, 128, 192, 128, cache_width=576)
    whole = Attention(128, 128, 192, 128, cache_width=128 * 320)
    assert seconds(latent, Step(64, 1, 8192)) < 0.1 * seconds(whole, Step(64, 1, 8192))


def test_a_dtype_without_rows_says_so():
    found = kernel_time(KERNELS[0], DECODE, A100, Dtypes("int4"))
    assert any("dequantize int4 to bf16" in note for note in found.notes)


def test_a_rate_that_is_not_known_is_refused():
    with pytest.raises(ParframeError, match="no rate of matrix products in fp32"):
        kernel_time(KERNELS[0], DECODE, A100, Dtypes("fp32"))
    own = attrs.evolve(A100, key="mine", rates={"fp32": 19.5e12})
    assert kernel_time(KERNELS[0], DECODE, own, Dtypes("fp32")).log_std > 0.5


def test_an_unknown_dtype_is_refused_with_the_nearest():
    with pytest.raises(ParframeError, match="did you mean 'int8'"):
        Dtypes("int88")


def test_data_reads_back_as_written():
    assert write(read(write(shipped()))) == write(shipped())


def test_a_kernel_is_priced_in_microseconds():
    on = chip(H100)
    found, _ = shipped().find("product", on, "bf16")
    began = time.process_time()
    for rows in range(1, 2001):
        product_time(on, found, rows, 4096, 4096)
    assert (time.process_time() - began) / 2000 < 100e-6


@pytest.fixture(scope="module")
def rows():
    if not MEASURED.is_dir():
        pytest.skip("the tables of measured times are not next to the checkout")
    from benchmarks.calibration import kernel_rows

    return kernel_rows.read_rows(MEASURED)


def test_the_data_tells_where_its_rows_come_from(rows):
    from benchmarks.calibration import kernel_rows

    assert shipped().sources == kernel_rows.provenance(MEASURED)
    assert all("github.com" in source and "@" in source for source in shipped().sources)


def test_fitting_the_rows_gives_the_shipped_figures(rows):
    from benchmarks.calibration import kernel_fit

    fitted = write(kernel_fit.fit(rows))
    for operator, devices in fitted["fitted"].items():
        for device, dtypes in devices.items():
            for dtype, figures in dtypes.items():
                kept = shipped().fitted[operator][device][dtype]
                assert figures["memory"] == pytest.approx(kept.memory, rel=0.01)
                assert figures["log_std"] == pytest.approx(kept.log_std, rel=0.02)


def test_products_are_within_seven_percent_on_every_device(rows):
    from benchmarks.calibration import kernel_fit

    for error in kernel_fit.summed(shipped(), [r for r in rows if r.operator == "product"]):
        assert error.median <= 0.07, error


def test_prompts_and_decode_steps_are_near_what_was_measured(rows):
    from benchmarks.calibration import kernel_fit

    chosen = [r for r in rows if r.kind in ("prompt", "decode")]
    for error in kernel_fit.errors(shipped(), chosen):
        assert error.median <= 0.09, error
