"""Union-find over the factors of tensor dims.

A tensor dim is a list of nodes, major to minor. A node is a factor: undivided, a product of nodes,
or segments (a concatenation of tensor dims). Joining two dims first refines both to their common
factors; where there are no common factors, nothing is joined.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Any, TypeAlias

from parframe.sizes import Size, divide, product, simplify, sum_sizes

_serial = count()


class Node:
    """Factor of tensor dims; ``find_root`` returns the node of all that it was joined with."""

    __slots__ = ("factors", "parent", "segments", "serial", "size")

    def __init__(self, size: Size) -> None:
        self.size = size
        self.parent: Node | None = None
        self.factors: list[Node] | None = None
        self.segments: list[NodeDim] | None = None
        self.serial = next(_serial)


NodeDim: TypeAlias = list[Node]


def find_root(node: Node) -> Node:
    """Return the node that represents this one."""
    root = node
    while root.parent is not None:
        root = root.parent
    while node.parent is not None:
        node.parent, node = root, node.parent
    return root


def flatten(dim: Sequence[Node]) -> NodeDim:
    """Return a dim as undivided and segmented factors, without those of size one."""
    result: NodeDim = []
    for node in dim:
        root = find_root(node)
        if root.factors is not None:
            result.extend(flatten(root.factors))
        elif root.size != 1:
            result.append(root)
    return result


def size_of(dim: Sequence[Node]) -> Size:
    """Return the number of elements along a dim."""
    return product(node.size for node in dim)


def join_dims(left: Sequence[Node], right: Sequence[Node]) -> bool:
    """Join two dims of one size; return False where their factors have no common refinement."""
    ours, theirs = flatten(left), flatten(right)
    while ours and theirs:
        a, b = ours[0], theirs[0]
        if a.size == b.size:
            if not _merge_nodes(a, b):
                return False
            del ours[0], theirs[0]
            # a merge may have divided factors that are still to come
            ours, theirs = flatten(ours), flatten(theirs)
        elif divide(b.size, a.size) is not None:
            if not _divide_node(b, a.size):
                return False
            theirs = flatten(theirs)
        elif divide(a.size, b.size) is not None:
            if not _divide_node(a, b.size):
                return False
            ours = flatten(ours)
        else:
            return False
    return not ours and not theirs


def take_factors(dim: Sequence[Node], size: Size) -> tuple[NodeDim, NodeDim] | None:
    """Divide a dim into its major factors of a size and the rest; None if no factors have it."""
    rest, taken = flatten(dim), []
    while size != 1:
        if not rest:
            return None
        head = rest[0]
        left = divide(size, head.size)
        if left is not None:
            taken.append(rest.pop(0))
            size = left
        elif divide(head.size, size) is not None:
            if not _divide_node(head, size):
                return None
            rest = flatten(rest)
        else:
            return None
    return taken, rest


def divide_segments(dim: Sequence[Node], sizes: Sequence[Size]) -> list[NodeDim] | None:
    """Divide a dim into segments of these sizes; None where its factors do not allow it."""
    parts: list[NodeDim] = []
    rest: NodeDim = list(dim)
    for size in sizes[:-1]:
        halves = _cut_dim(rest, size)
        if halves is None:
            return None
        parts.append(halves[0])
        rest = halves[1]
    return [*parts, rest]


def _merge_nodes(a: Node, b: Node) -> bool:
    """Join two undivided or segmented nodes of one size."""
    if a is b:
        return True
    if a.segments is not None and b.segments is not None:
        if not _align_segments(a, b):
            return False
        a, b = find_root(a), find_root(b)
        if a is b:
            return True
    keep, gone = (a, b) if a.segments is not None or b.segments is None else (b, a)
    if gone.segments is None and keep.segments is None and gone.serial < keep.serial:
        keep, gone = gone, keep
    if _contains_node(gone, keep):
        return False
    gone.parent = keep
    gone.segments = None
    return True


def _contains_node(node: Node, outer: Node) -> bool:
    """Return whether a node occurs within the segments of another."""
    return any(
        part is node or _contains_node(node, part)
        for dim in outer.segments or []
        for part in flatten(dim)
    )


def _align_segments(a: Node, b: Node) -> bool:
    """Join two segmented nodes part by part, cutting parts where the other's end."""
    position = 0
    while True:
        ours, theirs = _flat_parts(a), _flat_parts(b)
        if position == len(ours) and position == len(theirs):
            return True
        if position >= len(ours) or position >= len(theirs):
            return False
        left, right = size_of(ours[position]), size_of(theirs[position])
        if left != right:
            shorter = _shorter_side(left, right)
            if shorter is None:
                return False
            node, size = (b, left) if shorter == "left" else (a, right)
            if _cut_dim(_flat_parts(node)[position], size) is None:
                return False
            continue
        if not join_dims(ours[position], theirs[position]):
            return False
        position += 1


def _flat_parts(node: Node) -> list[NodeDim]:
    """Return the segments of a node, with nested segments flattened."""
    result: list[NodeDim] = []
    for dim in node.segments or []:
        result.extend(_splice(dim))
    node.segments = result
    return result


def _splice(dim: NodeDim) -> list[NodeDim]:
    flat = flatten(dim)
    if flat and flat[0].segments is not None and flat[0].size != 1:
        minor = flat[1:]
        return [[*part, *minor] for part in _flat_parts(flat[0])]
    return [flat]


def _shorter_side(left: Any, right: Any) -> str | None:
    if isinstance(left, int) and isinstance(right, int):
        return "left" if left < right else "right"
    difference = simplify(right - left)
    if isinstance(difference, int):
        return "left" if difference > 0 else "right"
    if difference.is_positive:
        return "left"
    return "right" if difference.is_negative else None


def _divide_node(node: Node, major: Size) -> bool:
    """Make an undivided or segmented node a product of ``major`` and the rest."""
    minor = divide(node.size, major)
    if minor is None:
        return False
    if node.segments is None:
        node.factors = [Node(major), Node(minor)]
        return True
    shared = Node(minor)
    majors: list[NodeDim] = []
    for part in _flat_parts(node):
        count_ = divide(size_of(part), minor)
        if count_ is None:
            return False
        halves = take_factors(part, count_)
        if halves is None or not join_dims(halves[1], [shared]):
            return False
        majors.append(halves[0])
    head = Node(major)
    head.segments = majors
    node.segments = None
    node.factors = [head, shared]
    return True


def _cut_dim(dim: Sequence[Node], at: Size) -> tuple[NodeDim, NodeDim] | None:
    """Cut a dim in two at a position, dividing its major factor into segments."""
    flat = flatten(dim)
    if not flat:
        return None
    head, minor = flat[0], flat[1:]
    place = divide(at, size_of(minor))
    if place is None:
        return None
    if place == 0:
        return [Node(0)], list(flat)
    if place == head.size:
        return list(flat), [Node(0)]
    if head.segments is None:
        if not isinstance(head.size, int):
            return None
        head.segments = [[Node(place)], [Node(simplify(head.size - place))]]
        return [*head.segments[0], *minor], [*head.segments[1], *minor]
    return _cut_segments(head, place, minor)


def _cut_segments(head: Node, place: Size, minor: NodeDim) -> tuple[NodeDim, NodeDim] | None:
    parts = _flat_parts(head)
    before: list[NodeDim] = []
    while parts:
        size = size_of(parts[0])
        done = sum_sizes(size_of(part) for part in before)
        if done == place:
            break
        inside = simplify(place - done)
        if size != inside and _shorter_side(inside, size) == "left":
            if _cut_dim(parts[0], inside) is None:
                return None
            parts = _flat_parts(head)[len(before) :]
            if size_of(parts[0]) == size:
                return None
            continue
        before.append(parts[0])
        parts = parts[1:]
    if not before or not parts:
        return None
    return [_bundle_parts(before, place), *minor], [
        _bundle_parts(parts, simplify(head.size - place)),
        *minor,
    ]


def _bundle_parts(parts: list[NodeDim], size: Size) -> Node:
    """Return one node for adjacent segments."""
    if len(parts) == 1 and len(parts[0]) == 1:
        return parts[0][0]
    node = Node(size)
    if len(parts) == 1:
        node.factors = list(parts[0])
    else:
        node.segments = [list(part) for part in parts]
    return node
