"""Spec: its keys, checked against each other."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import attrs

from parframe import hooks
from parframe.errors import ParframeError
from parframe.mesh import Composite, Mesh, parse_composite
from parframe.spec.keys import DemoModel, read_document
from parframe.spec.placing import place_spec
from parframe.spec.stage_list import Stage
from parframe.spec.toml_text import Origin, parse_text, read_text
from parframe.strategy import Placing

if TYPE_CHECKING:
    from parframe.rules import Rule


@attrs.frozen
class Verify:
    """Settings of the verification of a plan.

    Parameters
    ----------
    batch, sequence : int or None
        Sizes of its inputs; chosen automatically if None.
    seed : int
        The seed of random weights and inputs.
    execute : bool
        Whether the plan is executed.
    """

    batch: int | None = None
    sequence: int | None = None
    seed: int = 0
    execute: bool = True


@attrs.frozen
class Run:
    """Settings of the run of a plan in real processes.

    Parameters
    ----------
    prompts : tuple of str or tuple of int
        Prompts: texts, or token ids.
    max_new_tokens : int
        Maximum number of new tokens for each prompt.
    executor, device : str
        Name of the executor, and type of the devices.
    cached : bool
        Whether keys and values are cached.
    compiled : bool
        Whether the decode step is compiled.
    """

    prompts: tuple[str | tuple[int, ...], ...] = ()
    max_new_tokens: int = 32
    executor: str = "local"
    device: str = "cpu"
    cached: bool = True
    compiled: bool = False


def _model(value: str | Path | DemoModel | None) -> Path | DemoModel | None:
    return Path(value) if isinstance(value, str) else value


def _axes(value: Iterable[tuple[str, int]] | None) -> tuple[tuple[str, int], ...] | None:
    return None if value is None else tuple((axis, degree) for axis, degree in value)


def _shares(value: Mapping[str, Iterable[int]]) -> dict[str, tuple[int, ...]]:
    return {axis: tuple(parts) for axis, parts in value.items()}


def _splits(value: Mapping[str, Iterable[str]]) -> dict[str, tuple[str, ...]]:
    return {name: tuple(axes) for name, axes in value.items()}


@attrs.frozen(kw_only=True)
class Spec:
    """Specification: the model, the strategies, the devices, and what is done with the plan.

    Parameters
    ----------
    model : Path or DemoModel or None
        The model; None if it is given elsewhere.
    parallel : str
        A composite such as `PP4TP4DP2`, or nothing.
    devices : int or None
        The number of devices, to be checked against the mesh.
    mesh : tuple of (str, int) or None
        The axes of the mesh in order, where there is no composite.
    shares : mapping of str to tuple of int
        For mesh axes, in which ratio its devices get what is split over it.
    splits : mapping of str to tuple of str
        Mesh axes for names of dimensions, whatever the strategies say.
    stages : sequence of Stage
        The pipeline stages with their layers and degrees, where they are given one by one.
    strategies : mapping of str to mapping
        Options and declarations of strategies, by their codes in lower case.
    plugins : tuple of str
        Installed distributions whose plugins are imported.
    on_missing_rule : str
        `error` or `replicate`.
    output : Path or None
        The folder that the plan is written to.
    dtype : str or None
        The type of weights and cache; None for that of the model.
    batch, sequence : int or None
        Sizes for the memory report.
    memory_budget : int or None
        Memory that a device may use, in bytes.
    verify : Verify
        Settings of the verification.
    run : Run
        Settings of the run after verification; there is no run without prompts.
    origin : Origin
        Where the keys stand.

    Raises
    ------
    ParframeError
        Of kind `composite`, `mesh` or `spec`, if the composite is malformed or keys clash.

    Examples
    --------
    >>> Spec(parallel="PP2TP2").placing().mesh.size
    4
    """

    model: Path | DemoModel | None = attrs.field(default=None, converter=_model)
    parallel: str = attrs.field(default="", validator=attrs.validators.instance_of(str))
    devices: int | None = None
    mesh: tuple[tuple[str, int], ...] | None = attrs.field(default=None, converter=_axes)
    shares: Mapping[str, tuple[int, ...]] = attrs.field(factory=dict, converter=_shares)
    splits: Mapping[str, tuple[str, ...]] = attrs.field(factory=dict, converter=_splits)
    stages: tuple[Stage, ...] = attrs.field(default=(), converter=tuple[Stage, ...])
    strategies: Mapping[str, Mapping[str, Any]] = attrs.field(factory=dict)
    plugins: tuple[str, ...] = attrs.field(default=(), converter=tuple[str, ...])
    on_missing_rule: Literal["error", "replicate"] = "error"
    output: Path | None = None
    dtype: str | None = None
    batch: int | None = None
    sequence: int | None = None
    memory_budget: int | None = None
    verify: Verify = attrs.field(factory=Verify)
    run: Run = attrs.field(factory=Run)
    origin: Origin = attrs.field(factory=Origin, eq=False, repr=False)

    def __attrs_post_init__(self) -> None:
        composite = self.composite()
        if composite and self.mesh is not None:
            raise ParframeError(
                "spec", self.origin.where("mesh"), "given besides 'parallel'", "keep one of them"
            )
        with self.origin.at("mesh"):
            axes = Mesh(self.mesh or ()).axes
        size = math.prod(degree or 1 for _, degree in (*composite, *axes))
        if self.devices not in (None, size) and not self.stages:
            form = "composite" if composite else "mesh"
            raise ParframeError(
                "mesh",
                self.origin.where("devices"),
                f"is {self.devices}, but the {form} has {size} devices",
                f"set it to {size}, or use another {form}",
            )
        if self.output and isinstance(self.model, Path) and self.model.is_relative_to(self.output):
            raise ParframeError(
                "spec", self.origin.where("output"), "holds the model", "give another folder"
            )

    @classmethod
    def parse(cls, text: str, folder: str | Path = ".", name: str = "spec") -> Self:
        """Read a spec from its text.

        Parameters
        ----------
        text : str
            The text, in TOML.
        folder : str or Path
            The folder that its paths are relative to and may not leave.
        name : str
            What to call the spec in errors.

        Returns
        -------
        Spec
            The spec.

        Raises
        ------
        ParframeError
            Of kind `spec`, `composite` or `mesh`, with line and key, for the first mistake.
        """
        document, origin = parse_text(text, name)
        read = read_document(document, Path(folder), origin)
        return cls(
            model=_demo(read, origin)
            if isinstance(document.get("model"), dict)
            else read.get("model"),
            mesh=_under(read, "mesh").items() if "mesh" in document else None,
            shares=_under(read, "shares"),
            splits=_under(read, "splits"),
            strategies=_under(read, "strategies"),
            memory_budget=read.get("memory.budget"),
            verify=Verify(**_under(read, "verify")),
            run=Run(**_under(read, "run")),
            origin=origin,
            **{key: value for key, value in read.items() if key in _SAME},
        )

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read a spec from a file.

        Parameters
        ----------
        path : str or Path
            The file; its folder is the one that paths in it may not leave.

        Returns
        -------
        Spec
            The spec.

        Raises
        ------
        ParframeError
            Of kind `spec`, `composite` or `mesh`, with line and key, for the first mistake.
        """
        path = Path(path)
        return cls.parse(read_text(path), path.parent, str(path))

    def composite(self) -> Composite:
        """Read the composite.

        Returns
        -------
        tuple of (str, int or None)
            Its parts, none if there is no composite.

        Raises
        ------
        ParframeError
            Of kind `composite`, if it is malformed.
        """
        with self.origin.at("parallel"):
            return parse_composite(self.parallel) if self.parallel else ()

    def placing(self) -> Placing:
        """Find the strategies that the spec names and place what they split.

        Returns
        -------
        Placing
            The names on the mesh.

        Raises
        ------
        ParframeError
            Of kind `strategy`, `mesh`, `plugin` or `spec`, for what is unknown, clashes or
            fails.
        """
        return place_spec(self)

    def rules(self) -> tuple["Rule", ...]:
        """Collect the rules of operators that the plugins of the spec bring.

        Returns
        -------
        tuple of Rule
            At most one for each operator; built-in rules are not among them.

        Raises
        ------
        ParframeError
            Of kind `plugin`, if one of the plugins fails or two bring a rule for one operator.
        """
        return hooks.rules([code for code, _ in self.composite()], self.plugins)

    def rule_plugins(self) -> tuple[str, ...]:
        """List the distributions that bring these rules, in alphabetical order."""
        codes = [code for code, _ in self.composite()]
        return hooks.distributions_with_rules(codes, self.plugins)


_SAME = {field.name for field in attrs.fields(Spec)} - {"model"}


def _under(read: Mapping[str, Any], table: str) -> dict[str, Any]:
    """Return the values of the keys of a table, by their own names."""
    return {
        key.removeprefix(f"{table}."): value
        for key, value in read.items()
        if key.startswith(f"{table}.")
    }


def _demo(read: Mapping[str, Any], origin: Origin) -> DemoModel:
    """Return the demo model of a table, which must be complete."""
    for key, hint in (("model.kind", 'add kind = "demo"'), ("model.config", "add a table config")):
        if key not in read:
            raise ParframeError("spec", origin.where("model"), f"has no {key[6:]!r}", hint)
    if not isinstance(read["model.config"].get("model_type"), str):
        raise ParframeError(
            "spec",
            origin.where("model.config"),
            "has no model_type",
            'add one that transformers knows, as in model_type = "llama"',
        )
    return DemoModel(read["model.config"])
