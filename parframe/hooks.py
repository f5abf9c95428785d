"""The hooks that plugins may implement, and the discovery of plugins by their metadata alone.

A distribution announces itself in the entry-point group `parframe`. An entry point named
`strategy.XP` claims the code XP; the module that it points to is imported only when the code is
used in a composite, or when a spec lists the distribution under `plugins`. In the same way
`executor.NAME` claims the name of an executor, and `hardware.NAME` the name of a device or machine.
"""

import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pluggy

from parframe.errors import ParframeError, did_you_mean
from parframe.mesh import is_axis, is_code
from parframe.strategy import Strategy

if TYPE_CHECKING:  # rules need sympy, and finding plugins must not take its time
    from parframe.rules import DeviceOperator, Rule

API_VERSION = 1
"""The version of these hooks; a plugin made for another one says so as `parframe_api`."""

RESERVED = ("DP", "TP", "PP", "EP", "SP", "CP")
"""The codes that only parframe's own plugins may claim."""

EXECUTORS = ("local", "torchrun", "host", "simulate")
"""The names of parframe's own executors, which no plugin may claim."""

hookspec = pluggy.HookspecMarker("parframe")
hookimpl = pluggy.HookimplMarker("parframe")
"""Marks a function of a plugin as the implementation of the hook of its name."""

_OWN = "parframe"
_CLAIM = "strategy."
_EXECUTOR = "executor."
_HARDWARE = "hardware."


@hookspec
def parframe_strategies() -> list[type[Strategy]]:  # type: ignore[empty-body]
    """Offer strategies, each under a code that the distribution's entry points claim."""


@hookspec
def parframe_rules() -> list["Rule | DeviceOperator"]:  # type: ignore[empty-body]
    """Offer rules of operators, which come before built-in ones for the same operator.

    Operators that only programs of devices have may be listed as well.
    """


@hookspec
def parframe_executors() -> Mapping[str, Callable[..., Any]]:  # type: ignore[empty-body]
    """Offer what runs plans, by names that the distribution's entry points claim."""


@hookspec
def parframe_hardware() -> list[str | Path]:  # type: ignore[empty-body]
    """Offer devices and machines, as TOML or paths of files, by names that entry points claim."""


@attrs.frozen
class PluginInfo:
    """Entry point of an installed distribution, with the codes that it claims and its module."""

    distribution: str
    version: str
    name: str
    codes: tuple[str, ...]
    module: str
    entry_point: EntryPoint = attrs.field(repr=False, eq=False)


def installed() -> list[PluginInfo]:
    """List the plugins that are installed, by distribution and name, without importing any."""
    metadata: dict[int, tuple[str, str]] = {}  # the metadata of each distribution is read once
    found = [_read(entry_point, metadata) for entry_point in entry_points(group="parframe")]
    return sorted(found, key=lambda info: (info.distribution, info.name))


def strategies(
    codes: Iterable[str], distributions: Sequence[str] = ()
) -> dict[str, type[Strategy]]:
    """Return the strategies of some codes, importing the plugins that claim them.

    The plugins of ``distributions`` are imported whatever they claim.

    Raises
    ------
    ParframeError
        Of kind `plugin`, if a code is claimed twice or by one who may not, a distribution is not
        installed, or a plugin fails or was made for another version of the hooks.
    """
    plugins = installed()
    codes = tuple(codes)
    offered: dict[str, type[Strategy]] = {}
    for info in _wanted(plugins, codes, distributions):
        claimed = {code for other in plugins if _same(info, other) for code in other.codes}
        for strategy in _ask(info, "parframe_strategies"):
            _check_strategy(info, strategy, claimed)
            offered[strategy.code] = strategy
    return {code: offered[code] for code in codes if code in offered}


def rules(codes: Iterable[str], distributions: Sequence[str] = ()) -> tuple["Rule", ...]:
    """Return the rules of the plugins that some codes and distributions name, one per operator.

    The rules are registered for the whole process from then on.

    Raises
    ------
    ParframeError
        Of kind `plugin`, for the same as `strategies`, and if two rules are for one operator.
    """
    found = _offered_rules(codes, distributions)
    return tuple(rule for rules in found.values() for rule in rules)


def distributions_with_rules(
    codes: Iterable[str], distributions: Sequence[str] = ()
) -> tuple[str, ...]:
    """List the distributions among those of `rules` that bring rules, so that a plan names them.

    Parameters and errors are those of `rules`; the names are in alphabetical order.
    """
    return tuple(sorted(_offered_rules(codes, distributions)))


def _offered_rules(codes: Iterable[str], distributions: Sequence[str]) -> dict[str, list["Rule"]]:
    """Register and return the rules that plugins offer, by distribution, if it offers some."""
    from parframe.rules.table import register

    offered: dict[str, list[Rule]] = {}
    targets: list[str] = []
    for info in _wanted(installed(), tuple(codes), distributions):
        own = _ask(info, "parframe_rules")
        for rule in own:
            _check_rule(info, rule, targets)
            targets.append(rule.target)
        if own:
            offered.setdefault(info.distribution, []).extend(register(own))
    return offered


def claimed_codes() -> list[str]:
    """List the codes that installed plugins claim in alphabetical order, without importing any."""
    return sorted({code for info in installed() for code in info.codes})


def executor(name: str) -> Callable[..., Any] | None:
    """Return the executor of the plugin that claims a name; None if no installed plugin does.

    An executor takes a plan, requests and settings, and returns a result.

    Raises
    ------
    ParframeError
        Of kind `plugin`, if the name is claimed twice or is one of parframe's own, or the plugin
        fails or does not offer what it claims.
    """
    claims = [info for info in installed() if info.name == _EXECUTOR + name]
    if not claims:
        return None
    info = claims[0]
    if len(claims) > 1:
        others = " and ".join(sorted({info.distribution for info in claims}))
        raise ParframeError(
            "plugin", f"executor {name}", f"claimed by {others}", "uninstall all but one of them"
        )
    if name in EXECUTORS:
        what = f"claims the executor {name}, which is parframe's own"
        raise _broken(info, what, "uninstall it, or ask its author for another name")
    offered = _ask(info, "parframe_executors")
    pairs = dict(item for item in offered if isinstance(item, tuple) and len(item) == 2)
    found: Callable[..., Any] | None = pairs.get(name)
    if not callable(found):
        what = f"offers no executor {name!r} that can be called"
        raise _broken(info, what, f"let parframe_executors give {{{name!r}: a callable}}")
    return found


def claimed_executors() -> list[str]:
    """List the executors that installed plugins claim in alphabetical order, importing none."""
    return _claimed(_EXECUTOR)


def hardware(name: str) -> tuple[str | Path, ...]:
    """Return the hardware of plugins that claim a name in a text, as TOML or paths of files of it.

    ``name`` is a user's name of a device, a node or a cluster, such as `64xAcme-X1`.

    Raises
    ------
    ParframeError
        Of kind `plugin`, if a plugin fails or offers something else.
    """
    asked = set(re.findall(r"[a-z0-9]+", re.sub(r"^\s*\d+\s*[x*]\s*", "", name.casefold())))
    claims = [
        info
        for info in installed()
        if info.name.startswith(_HARDWARE)
        and set(re.findall(r"[a-z0-9]+", info.name.removeprefix(_HARDWARE).casefold())) <= asked
    ]
    found: list[str | Path] = []
    for info in {info.module: info for info in claims}.values():
        for source in _ask(info, "parframe_hardware"):
            if not isinstance(source, str | Path):
                what = f"offers {source!r} as hardware"
                raise _broken(info, what, "let parframe_hardware list TOML or paths of files")
            found.append(source)
    return tuple(found)


def claimed_hardware() -> list[str]:
    """List the devices and nodes that installed plugins claim in alphabetical order."""
    return _claimed(_HARDWARE)


def _claimed(kind: str) -> list[str]:
    names = {info.name for info in installed() if info.name.startswith(kind)}
    return sorted(name.removeprefix(kind) for name in names)


def _read(entry_point: EntryPoint, metadata: dict[int, tuple[str, str]]) -> PluginInfo:
    distribution, name = entry_point.dist, entry_point.name
    if id(distribution) not in metadata:
        metadata[id(distribution)] = (
            (distribution and distribution.name) or "unnamed distribution",
            (distribution and distribution.version) or "unknown",
        )
    known, version = metadata[id(distribution)]
    return PluginInfo(
        distribution=known,
        version=version,
        name=name,
        codes=(name.removeprefix(_CLAIM).upper(),) if name.startswith(_CLAIM) else (),
        module=_module(entry_point),
        entry_point=entry_point,
    )


def _module(entry_point: EntryPoint) -> str:
    try:
        return entry_point.module
    except AttributeError:  # what the entry point says is not a module
        return entry_point.value


def _claims(plugins: Sequence[PluginInfo], code: str) -> list[PluginInfo]:
    """Find the one plugin that claims a code, or none."""
    claims = [info for info in plugins if code in info.codes]
    for info in claims:
        if code in RESERVED and _normal(info.distribution) != _OWN:
            raise _broken(
                info,
                f"claims the code {code}, which is reserved for parframe's own plugins",
                "uninstall it, or ask its author for another code",
            )
    if len(claims) > 1:
        others = " and ".join(sorted({info.distribution for info in claims}))
        raise ParframeError(
            "plugin", f"code {code}", f"claimed by {others}", "uninstall all but one of them"
        )
    return claims


def _of_distribution(plugins: Sequence[PluginInfo], name: str) -> list[PluginInfo]:
    """Find all that a distribution offers."""
    found = [info for info in plugins if _normal(info.distribution) == _normal(name)]
    if not found:
        names = sorted({info.distribution for info in plugins})
        raise ParframeError(
            "plugin",
            f"distribution {name!r}",
            f"no plugin of that name is installed{did_you_mean(name, names)}",
            f"install it, or name one of: {', '.join(names) or 'none is installed'}",
        )
    for code in {code for info in found for code in info.codes}:
        _claims(plugins, code)
    return found


def _wanted(
    plugins: Sequence[PluginInfo], codes: Sequence[str], distributions: Sequence[str]
) -> list[PluginInfo]:
    """Find the plugins that codes and distributions name, each module once."""
    found = [claim for code in codes for claim in _claims(plugins, code)]
    for name in distributions:
        found += _of_distribution(plugins, name)
    return list({info.module: info for info in found}.values())


def _ask(info: PluginInfo, hook: str) -> list[Any]:
    """Import a plugin and collect what it answers to a hook."""
    manager = pluggy.PluginManager("parframe")
    manager.add_hookspecs(sys.modules[__name__])
    plugin = _import(info)
    try:
        manager.register(plugin)
        manager.check_pending()
        answers = getattr(manager.hook, hook)()
        return [
            item for own in answers for item in (own.items() if isinstance(own, Mapping) else own)
        ]
    except KeyboardInterrupt:
        raise
    except BaseException as fault:
        raise _failed(info, "its hooks fail", fault) from fault


def _import(info: PluginInfo) -> object:
    """Import the module of a plugin, whatever it does, and check the version it is made for."""
    try:
        plugin: object = info.entry_point.load()
        version = getattr(plugin, "parframe_api", API_VERSION)
    except KeyboardInterrupt:
        raise
    except BaseException as fault:
        raise _failed(info, "its import fails", fault) from fault
    if version != API_VERSION or isinstance(version, bool):
        raise _broken(
            info,
            f"made for version {version!r} of the plugin API, and this parframe has {API_VERSION}",
            f"install a version of {info.distribution} for it, or uninstall it",
        )
    return plugin


def _check_strategy(info: PluginInfo, strategy: object, claimed: Iterable[str]) -> None:
    """Check that what a plugin offers is a strategy, complete and under a claimed code."""
    if not (isinstance(strategy, type) and issubclass(strategy, Strategy)):
        raise _broken(
            info, f"offers {strategy!r}", "let parframe_strategies list subclasses of Strategy"
        )
    code, axis, splits = (getattr(strategy, name, None) for name in ("code", "axis", "splits"))
    if not isinstance(code, str) or not is_code(code) or code not in claimed:
        raise _broken(
            info,
            f"offers {strategy.__name__} under the code {code!r} without claiming it",
            f"name its entry point '{_CLAIM}{code}', with an uppercase code that ends in P",
        )
    if not isinstance(axis, str) or not is_axis(axis):
        raise _broken(
            info,
            f"{strategy.__name__} has the axis {axis!r}",
            "use a to z, digits and underscores, as in 'tp'",
        )
    if not isinstance(splits, tuple) or not all(isinstance(name, str) for name in splits):
        raise _broken(
            info,
            f"{strategy.__name__} has the splits {splits!r}",
            "give a tuple of names of dimensions, as in ('heads', 'ffn')",
        )


def _check_rule(info: PluginInfo, rule: object, others: Iterable[str]) -> None:
    """Check that what a plugin offers is a rule, and the only one for its operator."""
    from parframe.rules import DeviceOperator, Rule

    if not isinstance(rule, Rule | DeviceOperator):
        raise _broken(info, f"offers {rule!r}", "let parframe_rules list instances of Rule")
    if rule.target in others:
        what = f"offers a rule for {rule.target!r}, and so does another plugin or itself again"
        raise _broken(info, what, "leave out one of the two in 'plugins'")


def _same(one: PluginInfo, other: PluginInfo) -> bool:
    return (one.distribution, one.module) == (other.distribution, other.module)


def _failed(info: PluginInfo, what: str, fault: BaseException) -> ParframeError:
    first_line = next(iter(str(fault).splitlines()), "")
    message = f"{type(fault).__name__}: {first_line}" if first_line else type(fault).__name__
    return _broken(info, f"{what} ({message})", "repair or uninstall it")


def _broken(info: PluginInfo, what: str, hint: str) -> ParframeError:
    where = f"distribution {info.distribution!r} {info.version} ({info.module})"
    return ParframeError("plugin", where, what, hint)


def _normal(name: str) -> str:
    """Write the name of a distribution in the form in which names are compared."""
    return re.sub(r"[-_.]+", "-", name).lower()
