"""The hooks that plugins may implement, and the discovery of plugins by their metadata alone.

A distribution announces itself in the entry-point group `parframe`. An entry point named
`strategy.XP` claims the code XP; the module that it points to is imported only when the code is
used in a composite, or when a spec lists the distribution under `plugins`.
"""

import re
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import EntryPoint, entry_points

import attrs
import pluggy

from parframe.errors import ParframeError, did_you_mean
from parframe.mesh import is_axis, is_code
from parframe.strategy import Strategy

API_VERSION = 1
"""The version of these hooks; a plugin made for another one says so as `parframe_api`."""

RESERVED = ("DP", "TP", "PP", "EP", "SP", "CP")
"""The codes that only parframe's own plugins may claim."""

hookspec = pluggy.HookspecMarker("parframe")
hookimpl = pluggy.HookimplMarker("parframe")
"""Marks a function of a plugin as the implementation of the hook of its name."""

_OWN = "parframe"
_CLAIM = "strategy."


@hookspec
def parframe_strategies() -> list[type[Strategy]]:  # type: ignore[empty-body]
    """Offer strategies, each under a code that the distribution's entry points claim."""


@attrs.frozen
class PluginInfo:
    """One entry point of an installed distribution, as its metadata tells it.

    Parameters
    ----------
    distribution : str
        The name of the distribution, as it is installed.
    version : str
        Its version.
    name : str
        The name of the entry point.
    codes : tuple of str
        The codes of strategies that it claims.
    module : str
        The module that it points to.
    """

    distribution: str
    version: str
    name: str
    codes: tuple[str, ...]
    module: str
    entry_point: EntryPoint = attrs.field(repr=False, eq=False)


def installed() -> list[PluginInfo]:
    """List the plugins that are installed, without importing any.

    Returns
    -------
    list of PluginInfo
        Sorted by distribution and name.
    """
    found = (_read(entry_point) for entry_point in entry_points(group="parframe"))
    return sorted(found, key=lambda info: (info.distribution, info.name))


def strategies(
    codes: Iterable[str], distributions: Sequence[str] = ()
) -> dict[str, type[Strategy]]:
    """Find the strategies that some codes name, importing the plugins that claim them.

    Parameters
    ----------
    codes : iterable of str
        The codes to find.
    distributions : sequence of str
        Distributions to import whatever they claim.

    Returns
    -------
    dict of str to type of Strategy
        A strategy for every code that an installed plugin claims.

    Raises
    ------
    ParframeError
        Of kind `plugin`, if a code is claimed twice or by one who may not, a distribution is not
        installed, or a plugin fails or was made for another version of the hooks.
    """
    plugins = installed()
    wanted = [claim for code in codes for claim in _claims(plugins, code)]
    for name in distributions:
        wanted += _of_distribution(plugins, name)
    offered: dict[str, type[Strategy]] = {}
    for module in {info.module: info for info in wanted}.values():
        offered |= _offers(module, plugins)
    return {code: offered[code] for code in codes if code in offered}


def claimed_codes() -> list[str]:
    """List the codes that installed plugins claim, without importing any.

    Returns
    -------
    list of str
        The codes in alphabetical order.
    """
    return sorted({code for info in installed() for code in info.codes})


def _read(entry_point: EntryPoint) -> PluginInfo:
    distribution, name = entry_point.dist, entry_point.name
    return PluginInfo(
        distribution=(distribution and distribution.name) or "unnamed distribution",
        version=(distribution and distribution.version) or "unknown",
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


def _offers(info: PluginInfo, plugins: Sequence[PluginInfo]) -> dict[str, type[Strategy]]:
    """Import a plugin and ask it for its strategies."""
    manager = pluggy.PluginManager("parframe")
    manager.add_hookspecs(sys.modules[__name__])
    plugin = _import(info)
    try:
        manager.register(plugin)
        manager.check_pending()
        answers = manager.hook.parframe_strategies()
        offered = [strategy for answer in answers for strategy in answer]
    except KeyboardInterrupt:
        raise
    except BaseException as fault:
        raise _failed(info, "its hooks fail", fault) from fault
    claimed = {
        code
        for other in plugins
        if (other.distribution, other.module) == (info.distribution, info.module)
        for code in other.codes
    }
    for strategy in offered:
        _check_strategy(info, strategy, claimed)
    return {strategy.code: strategy for strategy in offered}


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
            f"name its entry point '{_CLAIM}{code}', with a code of capital letters up to a P",
        )
    if not isinstance(axis, str) or not is_axis(axis):
        raise _broken(
            info,
            f"{strategy.__name__} has the axis {axis!r}",
            "use small letters, digits and underscores, as in 'tp'",
        )
    if not isinstance(splits, tuple) or not all(isinstance(name, str) for name in splits):
        raise _broken(
            info,
            f"{strategy.__name__} has the splits {splits!r}",
            "give a tuple of names of dimensions, as in ('heads', 'ffn')",
        )


def _failed(info: PluginInfo, what: str, fault: BaseException) -> ParframeError:
    first_line = next(iter(str(fault).splitlines()), "")
    told = f"{type(fault).__name__}: {first_line}" if first_line else type(fault).__name__
    return _broken(info, f"{what} ({told})", "repair or uninstall it")


def _broken(info: PluginInfo, what: str, mend: str) -> ParframeError:
    where = f"distribution {info.distribution!r} {info.version} ({info.module})"
    return ParframeError("plugin", where, what, mend)


def _normal(name: str) -> str:
    """Write the name of a distribution in the form in which names are compared."""
    return re.sub(r"[-_.]+", "-", name).lower()
