"""Read a YAML file as W&B does, and remember the line of each key and value."""

from dataclasses import dataclass
from typing import Any

import yaml

from deep_cnn.sweep.spec.values import NUMBER_AS_TEXT
from deep_cnn.text import printable

# A sweep file has dozens of nodes, but nested aliases can multiply to billions.
_MOST_NODES = 100_000
# Deeper nesting would exhaust the stack of the interpreter.
_DEEPEST = 200
# Python refuses to print longer integers.
_LARGEST_INTEGER = 10**4000
# The keys and indices that lead to a value.
YamlPath = tuple[str | int, ...]


def parameter_path(name: str) -> YamlPath:
    """Return the path of a parameter in a sweep file; the name of a nested one is group/name."""
    return tuple(key for part in name.split("/") for key in ("parameters", part))


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """An error, or a note on something legal but surprising; `line` starts at 1."""

    line: int
    text: str
    is_error: bool = True

    def __str__(self) -> str:
        return printable(f"line {self.line}: {self.text}")


@dataclass(frozen=True, slots=True)
class Issue:
    """A finding about the value at `path`, whose line has not been looked up yet."""

    path: YamlPath
    text: str
    is_error: bool = True


class UnreadableError(Exception):
    """The file is not a mapping in YAML; `finding` says why."""

    def __init__(self, line: int, text: str) -> None:
        self.finding = Finding(line, text)


class Document:
    """YAML as W&B reads it (PyYAML's safe loader), with the line of each key and value.

    `content` is the mapping that the text holds, `duplicates` are notes on repeated keys, and
    `numbers_as_text` holds the paths of unquoted strings that were meant as numbers.
    """

    def __init__(self, text: str) -> None:
        """Read `text`; raise UnreadableError if it is not a mapping."""
        self.lines: dict[YamlPath, int] = {}
        self.duplicates: list[Finding] = []
        self.numbers_as_text: set[YamlPath] = set()
        self._walked = 0
        try:
            content = self._load(text)
        except yaml.reader.ReaderError as error:
            line, problem = text.count("\n", 0, error.position), error.reason
            raise UnreadableError(line + 1, f"this is not YAML ({problem}); correct it") from None
        except yaml.MarkedYAMLError as error:
            mark, problem = error.problem_mark or error.context_mark, error.problem
            line = mark.line if mark else 0
            raise UnreadableError(line + 1, f"this is not YAML ({problem}); correct it") from None
        if not isinstance(content, dict):
            kind = type(content).__name__
            what = "empty" if content is None else f"a {kind}, not keys and values"
            raise UnreadableError(1, f"the file is {what}; begin with method: and parameters:")
        self.content: dict[Any, Any] = content

    def locate(self, issue: Issue) -> Finding:
        """Return an issue with the line of its key, or of the nearest enclosing key."""
        path = issue.path
        while path not in self.lines and path:
            path = path[:-1]
        return Finding(self.lines.get(path, 1), issue.text, issue.is_error)

    def _load(self, text: str) -> Any:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        # First, because constructing resolves merge keys in place.
        self._walk(node, (), frozenset())
        return loader.construct_document(node)

    def _walk(self, node: yaml.Node, path: YamlPath, ancestors: frozenset[int]) -> None:
        self._walked += 1
        if id(node) in ancestors or self._walked > _MOST_NODES:
            raise _problem(node, "its aliases have no end")
        if len(ancestors) > _DEEPEST:
            raise _problem(node, f"it is nested more than {_DEEPEST} levels deep")
        self.lines[path] = self.lines.get(path) or node.start_mark.line + 1
        self.numbers_as_text.discard(path)
        inside = ancestors | {id(node)}
        if isinstance(node, yaml.ScalarNode):
            is_text = node.style is None and node.tag == "tag:yaml.org,2002:str"
            if is_text and NUMBER_AS_TEXT.match(node.value):
                self.numbers_as_text.add(path)
        elif isinstance(node, yaml.MappingNode):
            self._walk_mapping(node, path, inside)
        else:
            for i, item in enumerate(node.value):
                self._walk(item, (*path, i), inside)

    def _walk_mapping(
        self, node: yaml.MappingNode, path: YamlPath, ancestors: frozenset[int]
    ) -> None:
        merged = [value for key, value in node.value if key.tag == "tag:yaml.org,2002:merge"]
        for value in merged:  # First, because a mapping's own keys take precedence.
            for source in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                self._walk(source, path, ancestors)
        seen = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _problem(key, "a key must be a single word")
            line = key.start_mark.line + 1
            if key.value in seen:  # PyYAML takes the last one without a word.
                text = f"key {key.value!r} appears twice and the last one counts; remove one"
                self.duplicates.append(Finding(line, text, is_error=False))
            seen.add(key.value)
            self.lines[(*path, key.value)] = line
            if value not in merged:
                self._walk(value, (*path, key.value), ancestors)


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """The safe loader, with a line in every error."""

    depth = 0
    nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose a node; raise yaml.MarkedYAMLError if there are too many, or too deep ones."""
        self.depth += 1
        self.nodes += 1
        if self.nodes > _MOST_NODES:
            raise _problem(self.peek_event(), f"it has more than {_MOST_NODES:,} values")
        if self.depth > _DEEPEST:
            raise _problem(self.peek_event(), f"it is nested more than {_DEEPEST} levels deep")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Construct the value of a node; raise yaml.MarkedYAMLError for invalid scalars."""
        if not isinstance(node, yaml.ScalarNode):
            return super().construct_object(node, deep)
        try:
            value = super().construct_object(node, deep)
        # What PyYAML raises for a date such as 2020-13-45, `!!int x`, `!!int ""` and `!!bool x`.
        except (ValueError, OverflowError, TypeError, AttributeError, LookupError):
            kind = node.tag.rpartition(":")[2]
            raise _problem(node, f"{node.value[:40]!r} is not a legal {kind}") from None
        if isinstance(value, int) and abs(value) > _LARGEST_INTEGER:
            raise _problem(node, "a number with more than 4,000 digits")
        return value


def _problem(node: yaml.Node | yaml.Event, text: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=text, problem_mark=node.start_mark)
