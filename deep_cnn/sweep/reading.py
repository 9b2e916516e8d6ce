"""Read a YAML file as W&B does, and remember the line of each key and value."""

from dataclasses import dataclass
from typing import Any

import yaml

# A sweep file has some dozens; aliases of aliases can multiply to billions.
_MOST_NODES = 100_000
Where = tuple[str | int, ...]


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """A fault, or a note on what is legal but may surprise; `line` counts from 1."""

    line: int
    text: str
    fault: bool = True

    def __str__(self) -> str:
        return f"line {self.line}: {self.text}"


class Unreadable(Exception):
    """The file is no mapping in YAML; `finding` says why."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(str(finding))
        self.finding = finding


class Document:
    """YAML as W&B reads it (PyYAML's safe loader), with the line of each key and value."""

    def __init__(self) -> None:
        self.walked = 0
        self.lines: dict[Where, int] = {}
        self.plain: set[Where] = set()
        self.twice: list[tuple[Where, int]] = []

    def read(self, text: str) -> dict[str, Any]:
        """The mapping that `text` holds; Unreadable."""
        try:
            node = yaml.compose(text, Loader=yaml.SafeLoader)
            if node is not None:
                self._walk(node, (), set())
            content = yaml.safe_load(text)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            problem = getattr(error, "problem", None) or str(error).splitlines()[0]
            line = mark.line + 1 if mark else 1
            if isinstance(error, yaml.reader.ReaderError):
                line = text.count("\n", 0, error.position) + 1
            raise Unreadable(Finding(line, f"this is not YAML ({problem}); correct it")) from None
        except (ValueError, TypeError, RecursionError, OverflowError, AttributeError) as error:
            raise Unreadable(
                Finding(1, f"this YAML holds no plain values ({error}); simplify it")
            ) from None
        if not isinstance(content, dict):
            what = (
                "empty" if content is None else f"a {type(content).__name__}, not keys and values"
            )
            raise Unreadable(Finding(1, f"the file is {what}; begin with method: and parameters:"))
        return content

    def _walk(self, node: yaml.Node, path: Where, open_nodes: set[int]) -> None:
        self.walked += 1
        if id(node) in open_nodes or self.walked > _MOST_NODES:
            raise RecursionError("its aliases have no end")
        self.lines[path] = self.lines.get(path) or node.start_mark.line + 1
        self.plain.discard(path)
        if isinstance(node, yaml.ScalarNode) and node.style is None:
            self.plain.add(path)
        inside = open_nodes | {id(node)}
        if isinstance(node, yaml.MappingNode):
            self._walk_mapping(node, path, inside)
        if isinstance(node, yaml.SequenceNode):
            for i, item in enumerate(node.value):
                self._walk(item, (*path, i), inside)

    def _walk_mapping(self, node: yaml.MappingNode, path: Where, inside: set[int]) -> None:
        merged = [value for key, value in node.value if key.tag == "tag:yaml.org,2002:merge"]
        for value in merged:  # First, because a mapping's own keys win over merged ones.
            for source in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                self._walk(source, path, inside)
        seen = set()
        for key, value in node.value:
            name = str(key.value)
            if name in seen:
                self.twice.append(((*path, name), key.start_mark.line + 1))
            seen.add(name)
            self.lines[(*path, name)] = key.start_mark.line + 1
            if value not in merged:
                self._walk(value, (*path, name), inside)

    def line(self, path: Where) -> int:
        """The line of a key, or of the nearest one around it."""
        while path not in self.lines and path:
            path = path[:-1]
        return self.lines.get(path, 1)


class Findings:
    """What was found in a document, each at a place in it."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.found: list[Finding] = []

    def add(self, line: int, text: str, fault: bool = True) -> None:
        """Add what is in a line."""
        self.found.append(Finding(line, text, fault))

    def wrong(self, where: Where, text: str, fault: bool = True) -> None:
        """Add a fault, or a note, at a key or value."""
        self.add(self.document.line(where), text, fault)

    def note(self, where: Where, text: str) -> None:
        """Add a note at a key or value."""
        self.wrong(where, text, False)
