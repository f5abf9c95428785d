"""Rules of linear recurrences."""

from __future__ import annotations

from parframe.rules.building import signature
from parframe.rules.rule import Rule, Site
from parframe.rules.signature import Pattern, Signature
from parframe.sizes import divide


def _recurrence(site: Site) -> Signature | None:
    """``b s! (k) d, b s k d, b s (k g) e, b s (k g) d, b s (k g)? -> b s (k g) e``.

    Where the delta rule compares the state with what is added, ``d`` is whole.
    """
    key, value, decay = (site.inputs[i].shape for i in (1, 2, 3))
    group = divide(value[2], key[2])
    if group is None:
        return None
    k: Pattern = () if key[2] == 1 else ("k",)
    heads: Pattern = (*k, *(() if group == 1 else ("g",)))
    b, s, d, e = (((name,),) for name in "bsde")
    read = (*b, *s, k, *d)
    inner = ((),) if decay[3] == 1 else d
    taken = [read, read, (*b, *s, heads, *e), (*b, *s, heads, *inner)]
    delta = site.input("beta") is not None
    if delta:
        taken.append((*b, *s, heads))
    sizes = {"k": key[2]} if group == 1 or key[2] != 1 else {}
    return signature(
        site, taken, [(*b, *s, heads, *e)],
        sizes={**sizes, **({} if group == 1 else {"g": group})},
        whole="sd" if delta else "s",
        linear="query | value" if delta else "query | key | value",
    )  # fmt: skip


RULES = (Rule("parframe.recurrence.default", _recurrence, registered_by="parframe.ops.recurrence"),)
