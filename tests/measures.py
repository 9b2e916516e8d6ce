"""Measure the size of the package: `python -m tests.measures` prints a table.

A line of code is one that is neither blank, nor a comment, nor part of a docstring.
"""

import ast
import io
import tokenize
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "deep_cnn"
Function = ast.FunctionDef | ast.AsyncFunctionDef


def docstring_lines(tree: ast.Module) -> set[int]:
    """Return the numbers of all lines of docstrings."""
    lines: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | Function) and node.body:
            first = node.body[0]
            value = first.value if isinstance(first, ast.Expr) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                lines |= set(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    return lines


def code_and_comment_lines(text: str) -> tuple[set[int], set[int]]:
    """Return the numbers of the lines with code (docstrings included), and those with comments."""
    code: set[int] = set()
    comments: set[int] = set()
    skipped = {tokenize.NEWLINE, tokenize.NL, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            comments.add(token.start[0])
        elif token.type not in skipped:
            code |= set(range(token.start[0], token.end[0] + 1))
    return code, comments


def length(node: ast.ClassDef | Function) -> int:
    """Return the number of lines of a definition, decorators included."""
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    return (node.end_lineno or node.lineno) - first + 1


def parameters(node: Function) -> int:
    """Return how many parameters a function has, without self and cls."""
    every = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
    return len([argument for argument in every if argument.arg not in ("self", "cls")])


def definitions(tree: ast.Module) -> Iterator[ast.ClassDef | Function]:
    """Yield all functions and classes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | Function):
            yield node


def main() -> None:
    """Print the measures, and what is beyond their bounds."""
    code = docs = comments = mappings = modules = 0
    beyond: list[str] = []
    for path in sorted(PACKAGE.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        tree, name = ast.parse(text), str(path.relative_to(PACKAGE.parent))
        in_docs = docstring_lines(tree)
        in_code, in_comments = code_and_comment_lines(text)
        modules += 1
        code += len(in_code - in_docs)
        docs += len(in_docs)
        comments += len(in_comments)
        mappings += text.count("Mapping[str, Any]")
        if len(text.splitlines()) > 300:
            beyond.append(f"{name}: {len(text.splitlines())} lines")
        for node in definitions(tree):
            most = 150 if isinstance(node, ast.ClassDef) else 45
            if length(node) > most:
                beyond.append(f"{name}:{node.lineno} {node.name}: {length(node)} lines")
            if isinstance(node, Function) and parameters(node) > 6:
                beyond.append(f"{name}:{node.lineno} {node.name}: {parameters(node)} parameters")
    print(f"modules                {modules:>6}")
    print(f"lines of code          {code:>6}  (at most 6800)")
    print(f"lines of docstrings    {docs:>6}  (at least 960)")
    print(f"lines with comments    {comments:>6}  ({100 * comments / code:.1f} % of code)")
    print(f"Mapping[str, Any]      {mappings:>6}  (at most 25)")
    print("\n".join(["beyond bounds:", *beyond] if beyond else ["nothing is beyond its bounds"]))


if __name__ == "__main__":
    main()
