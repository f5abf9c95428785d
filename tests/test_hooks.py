import sys
from collections.abc import Iterator
from pathlib import Path

import models
import pytest

import parframe
from parframe import Spec, hooks
from parframe.errors import ParframeError
from parframe.executors.generate import find_executor

GOOD = """
import attrs
from parframe import Strategy, hookimpl

parframe_api = 1

@attrs.frozen
class Ring(Strategy):
    code = "RP"
    axis = "ring"
    splits = ("sequence",)
    size: int = 4

@hookimpl
def parframe_strategies():
    return [Ring]
"""

RULES = """
from parframe import Rule, hookimpl

@hookimpl
def parframe_rules():
    return [Rule("mine.double.default", "... -> ...", slots="self")]
"""

EXECUTOR = """
from parframe import hookimpl
from parframe.generation import Result

def echo(plan, requests, settings):
    for request in requests:
        yield Result(request.number, request.tokens, "length")

@hookimpl
def parframe_executors():
    return {"echo": echo}
"""


class Site:
    """A folder on sys.path with throwaway distributions in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def install(self, distribution: str, code: str, source: str, kind: str = "strategy") -> str:
        """Install a distribution whose module has a source and claims a code."""
        module = f"{distribution.replace('-', '_')}_module"
        (self.folder / f"{module}.py").write_text(source)
        info = self.folder / f"{distribution.replace('-', '_')}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n"
        )
        (info / "entry_points.txt").write_text(f"[parframe]\n{kind}.{code} = {module}\n")
        return module


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield Site(tmp_path)
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def test_the_built_in_strategies_are_found_through_entry_points() -> None:
    codes = {"CP", "DP", "PP", "SP", "TP"}
    assert set(hooks.strategies(sorted(codes))) == codes
    assert codes <= set(hooks.claimed_codes())


def test_a_third_party_strategy_works_like_a_built_in_one(site: Site) -> None:
    site.install("rings", "RP", GOOD)
    placing = Spec(parallel="TP2RP3", strategies={"rp": {"size": 2}}).placing()
    assert placing.mesh.axes == (("tp", 2), ("ring", 3))
    assert placing.axes("sequence") == ("ring",)


def test_listing_plugins_imports_none(site: Site) -> None:
    module = site.install("rings", "RP", "raise SystemExit(3)")
    [info] = [info for info in hooks.installed() if info.distribution == "rings"]
    assert (info.version, info.name, info.codes, info.module) == (
        "1.2",
        "strategy.RP",
        ("RP",),
        module,
    )
    assert module not in sys.modules


def test_a_plugin_is_imported_only_when_it_is_named(site: Site) -> None:
    module = site.install("rings", "RP", GOOD)
    Spec(parallel="TP2").placing()
    assert module not in sys.modules
    Spec(parallel="TP2", plugins=("Rings",)).placing()
    assert module in sys.modules


@pytest.mark.parametrize("code", hooks.RESERVED)
def test_a_reserved_code_cannot_be_claimed(site: Site, code: str) -> None:
    module = site.install("usurper", code, GOOD)
    with pytest.raises(ParframeError, match=rf"'usurper' 1.2.*claims the code {code}.*reserved"):
        Spec(parallel=f"{code}2").placing()
    assert module not in sys.modules


def test_two_plugins_cannot_claim_one_code(site: Site) -> None:
    site.install("rings", "RP", GOOD)
    site.install("more-rings", "RP", GOOD)
    with pytest.raises(ParframeError, match=r"\[plugin\] code RP: claimed by more-rings and rings"):
        Spec(parallel="RP2").placing()


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("raise SystemExit(3)", r"import fails \(SystemExit: 3\)"),
        ("raise GeneratorExit", r"import fails \(GeneratorExit\)"),
        ("import no_such_module_at_all", r"import fails \(ModuleNotFoundError: .*\)"),
        ("def broken(:", r"import fails \(SyntaxError: .*\)"),
        ("parframe_api = 2\n" + GOOD.replace("parframe_api = 1", ""), r"made for version 2 of"),
        (GOOD.replace("return [Ring]", "raise SystemExit"), r"hooks fail \(SystemExit\)"),
        (GOOD.replace("return [Ring]", "return 3"), r"hooks fail \(TypeError: .*\)"),
        (GOOD.replace("return [Ring]", "return ['RP']"), r"offers 'RP'"),
        (GOOD.replace('"RP"', '"TP"'), r"under the code 'TP' without claiming it"),
        (GOOD.replace('    code = "RP"\n', ""), r"under the code None without claiming it"),
        (GOOD.replace('"ring"', '"my ring"'), r"has the axis 'my ring'"),
        (GOOD.replace('("sequence",)', '"sequence"'), r"has the splits 'sequence'"),
        (GOOD + "\n@hookimpl\ndef parframe_no_such_hook(): ...", r"hooks fail \(PluginValid"),
    ],
)
def test_a_broken_plugin_is_an_error_that_names_its_distribution(
    site: Site, source: str, expected: str
) -> None:
    site.install("rings", "RP", source)
    with pytest.raises(
        ParframeError, match=rf"^error\[plugin\] distribution 'rings' 1.2.*{expected}"
    ):
        Spec(parallel="RP2").placing()


def test_an_interrupt_by_the_user_during_import_is_not_an_error_of_the_plugin(site: Site) -> None:
    site.install("rings", "RP", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        Spec(parallel="RP2").placing()


def test_a_broken_plugin_does_not_disturb_others(site: Site) -> None:
    site.install("rings", "RP", "raise SystemExit(3)")
    assert Spec(parallel="TP2").placing().mesh.size == 2


def test_a_distribution_that_is_not_installed_is_an_error() -> None:
    with pytest.raises(ParframeError, match=r"no plugin of that name.*'parframe'"):
        Spec(parallel="TP2", plugins=("parfrme",)).placing()


def test_rules_of_a_plugin_are_those_of_the_distributions_a_spec_names(site: Site) -> None:
    site.install("doubles", "XP", RULES)
    assert Spec(parallel="TP2").rules() == ()
    [rule] = Spec(parallel="TP2", plugins=("doubles",)).rules()
    assert rule.target == "mine.double.default"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (RULES.replace("return [", "return ['double'] + ["), "offers 'double'"),
        (RULES.replace("return [", "return 2 * ["), "rule for 'mine.double.default', and so does"),
    ],
)
def test_what_is_no_rule_is_refused(site: Site, source: str, expected: str) -> None:
    site.install("doubles", "XP", source)
    with pytest.raises(ParframeError, match=rf"'doubles' 1.2.*{expected}"):
        Spec(parallel="TP2", plugins=("doubles",)).rules()


def plan_of_language_model() -> parframe.Plan:
    config = models.tiny_config("llama", max_position_embeddings=256)
    return parframe.partition(parframe.load(config, positions=True), "TP2")


@pytest.mark.parametrize("listed", ['{"echo": echo}', '[("echo", echo)]'])
def test_an_executor_of_a_plugin_is_used_by_its_name(site: Site, listed: str) -> None:
    source = EXECUTOR.replace('{"echo": echo}', listed)
    module = site.install("echoes", "echo", source, "executor")
    assert "echo" in hooks.claimed_executors()
    assert module not in sys.modules
    [result] = parframe.run(plan_of_language_model(), [(1, 2, 3)], "random", executor="echo")
    assert result.tokens == (1, 2, 3)


def test_an_executor_that_nobody_has_is_refused_with_the_nearest_names(site: Site) -> None:
    module = site.install("echoes", "echo", EXECUTOR, "executor")
    with pytest.raises(ParframeError, match=r"'ecko'.*unknown name.*'echo'.*simulate, echo"):
        find_executor("ecko")
    assert module not in sys.modules


@pytest.mark.parametrize("name", hooks.EXECUTORS)
def test_the_name_of_an_own_executor_cannot_be_claimed(site: Site, name: str) -> None:
    site.install("usurper", name, EXECUTOR, "executor")
    with pytest.raises(ParframeError, match=rf"'usurper' 1.2.*executor {name}, which is parframe"):
        find_executor(name)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (EXECUTOR.replace('{"echo": echo}', '{"echoes": echo}'), "offers no executor 'echo'"),
        (EXECUTOR.replace('{"echo": echo}', '{"echo": 3}'), "offers no executor 'echo'"),
        (EXECUTOR.replace('{"echo": echo}', '["echo"]'), "offers no executor 'echo'"),
        (EXECUTOR.replace('{"echo": echo}', "3"), r"hooks fail \(TypeError"),
    ],
)
def test_a_plugin_must_offer_the_executor_that_it_claims(
    site: Site, source: str, expected: str
) -> None:
    site.install("echoes", "echo", source, "executor")
    with pytest.raises(ParframeError, match=rf"'echoes' 1.2.*{expected}"):
        find_executor("echo")


def test_two_plugins_cannot_claim_one_executor(site: Site) -> None:
    site.install("echoes", "echo", EXECUTOR, "executor")
    site.install("more-echoes", "echo", EXECUTOR, "executor")
    with pytest.raises(ParframeError, match=r"executor echo: claimed by echoes and more-echoes"):
        find_executor("echo")
